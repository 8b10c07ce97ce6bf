#!/bin/bash
# Healthy: the entrypoint has registered the node with repmgr, and the server answers.
set -eu
[[ -e /run/pgnode/ready ]]
exec pg_isready --quiet --host=/var/run/postgresql --port="$(< /run/pgnode/port)" --timeout=3 \
    --username=postgres --dbname=postgres
