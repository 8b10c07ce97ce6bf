#!/bin/bash
# Runs once, when the first primary is initialised: makes the monitor's role of pgweir.
# pgweir/setup.sql is what `pgweir setup-sql` prints.
set -eu -o pipefail
export PGDATABASE=postgres
psql -X -q -v ON_ERROR_STOP=1 --file="$(dirname "$0")/pgweir/setup.sql"
psql -X -q -v ON_ERROR_STOP=1 << 'EOF'
\getenv password PGWEIR_MONITOR_PASSWORD
ALTER ROLE pgweir PASSWORD :'password';
EOF
