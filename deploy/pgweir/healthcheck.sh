#!/bin/bash
# Healthy: the admin address answers /readyz with 200. Nothing but bash is needed for it.
set -eu
admin=${PGWEIR_ADMIN:-:9187}
readonly PORT=${admin##*:}
exec 3<> "/dev/tcp/127.0.0.1/$PORT"
printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
read -r -t 2 status <&3
[[ $status == *' 200 '* ]]
