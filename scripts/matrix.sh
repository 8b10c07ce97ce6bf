#!/usr/bin/env bash
# Runs the end-to-end tests on several major versions of PostgreSQL, one after the other:
#
#   matrix.sh 14 15 16 17 18
#
# A version that the distribution has is taken from there, the others are fetched, all of them
# before the first test runs. Failing and skipped tests are printed with all that they say, and
# at the end stands a line of counts for each version. With MATRIX_LOGS set, all that go test wrote
# is kept in that directory, one file a version.
#
#   TESTS='Parity|Dump'   only the tests that match
#
# Exits 1 when a test failed or none ran, 2 when a version could not be had or named.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'matrix.sh: %s\n' "$*" >&2; exit 2; }

# bins_of prints where the server programs of a version are.
bins_of() {
    if [ -x "/usr/lib/postgresql/$1/bin/postgres" ]; then
        echo "/usr/lib/postgresql/$1/bin"
    else
        internal/e2e/fetch-postgres.sh "$1"
    fi
}

# telling prints, of what `go test -v` writes to a file, what is worth reading: each test that fails
# or is skipped, with all that it says, and what is said outside of tests. The tests run one after
# the other, so a line "=== RUN" of a test, not of a part of it, is where the one before ends.
telling() {
    awk '
        function tell() { if (worth) printf "%s", said; said = ""; worth = inside = 0 }
        /^=== RUN   [^\/]*$/ { tell(); inside = 1 }
        /^(PASS|FAIL|ok )/ { tell() }
        /^=== (RUN|PAUSE|CONT|NAME)|^ *--- PASS/ { next }
        !inside { print; next }
        /^ *--- (FAIL|SKIP)|^panic:|^fatal error:/ { worth = 1 }
        { said = said $0 "\n" }
        END { tell() }
    ' "$1"
}

# count prints how many lines of a file fit.
count() { grep -cE "$1" "$2" || true; }

# counts prints how many tests, and parts of tests, passed, failed and were skipped.
counts() {
    printf '%d passed, %d failed, %d skipped (their parts: %d, %d, %d)' \
        "$(count '^--- PASS' "$1")" "$(count '^--- FAIL' "$1")" "$(count '^--- SKIP' "$1")" \
        "$(count '^ +--- PASS' "$1")" "$(count '^ +--- FAIL' "$1")" "$(count '^ +--- SKIP' "$1")"
}

[ $# -gt 0 ] || die 'which versions? matrix.sh 14 15 16 17 18'
declare -A bins
for version in "$@"; do
    case $version in '' | *[!0-9]*) die "$version is no major version of PostgreSQL" ;; esac
    bins[$version]=$(bins_of "$version") || die "there are no server programs of PostgreSQL $version"
done

if [ -n "${MATRIX_LOGS:-}" ]; then
    logs=$MATRIX_LOGS
    mkdir -p "$logs"
else
    logs=$(mktemp -d)
    trap 'rm -rf "$logs"' EXIT
fi
summary=() failed=()
for version in "$@"; do
    dir=${bins[$version]} log=$logs/postgresql-$version.log began=$SECONDS verdict=ok
    # The library path that internal/localpg gives to fetched programs.
    full=$(LD_LIBRARY_PATH=$dir/../lib "$dir/postgres" --version) || die "$dir/postgres does not run"
    echo "== $full, $dir"
    if ! PGWEIR_PG_BINS=$dir go test -count=1 -v -timeout 60m ./internal/e2e -run "${TESTS:-.}" > "$log" 2>&1 ||
        ! grep -q '^--- PASS' "$log"; then
        verdict=FAILED
        failed+=("$version")
    fi
    telling "$log"
    summary+=("$(printf '%-6s PostgreSQL %s: %s, %d s' "$verdict" "$version" "$(counts "$log")" $((SECONDS - began)))")
done
printf '\n'
printf '%s\n' "${summary[@]}"
if [ "${#failed[@]}" -gt 0 ]; then
    echo "failed on PostgreSQL: ${failed[*]}" >&2
    exit 1
fi
