#!/usr/bin/env bash
# Runs fuzz targets one after the other, each for some time:
#
#   fuzz.sh 60s                    all of them
#   fuzz.sh 60s FuzzFrames …       these
#
# What a target finds is left in its package's testdata/fuzz and makes the run fail.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?how long each target runs, for example 60s}
shift
found=$(grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do
    sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$(dirname "$file") \1|p" "$file"
done)
for name in "$@"; do
    if ! grep -q " $name\$" <<< "$found"; then
        echo "fuzz.sh: there is no target $name" >&2
        exit 1
    fi
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# ran_out says whether a run failed for nothing but the end of its time: until Go 1.27 go test may report that as a
# failure (golang/go#75804). Then the target's failure consists of one line, and no input was written.
ran_out() {
    ! grep -q 'Failing input\|panic:' "$log" &&
        [ "$(sed -n '/^--- FAIL: /,/^FAIL$/p' "$log" | sed '1d;$d')" = '    context deadline exceeded' ]
}

while read -r dir name <&3; do
    if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qx "$name"; then continue; fi
    echo "== $name in $dir, $time"
    if go test "$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$time" 2>&1 | tee "$log"; then continue; fi
    ran_out || exit 1
    echo "$name ran for $time and found nothing; that its time was over counts as a failure only to go test"
done 3<<< "$found"
