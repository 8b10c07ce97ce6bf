#!/usr/bin/env bash
# Runs the end-to-end tests on several major versions of PostgreSQL, one after the other:
#
#   matrix.sh 14 15 16 17 18
#
# A version that the distribution has is taken from there, the others are fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=()
for version in "$@"; do
    bins=/usr/lib/postgresql/$version/bin
    [ -x "$bins/postgres" ] || bins=$(internal/e2e/fetch-postgres.sh "$version" | tail -n 1)
    echo "== PostgreSQL $version, $("$bins/postgres" --version 2> /dev/null || LD_LIBRARY_PATH="$bins/../lib" "$bins/postgres" --version)"
    PGWEIR_PG_BINS=$bins go test -count=1 -timeout 60m ./internal/e2e || failed+=("$version")
done
if [ "${#failed[@]}" -gt 0 ]; then
    echo "failed on PostgreSQL: ${failed[*]}" >&2
    exit 1
fi
