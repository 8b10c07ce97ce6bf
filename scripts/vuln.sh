#!/usr/bin/env bash
# Looks for known vulnerabilities in what pgweir is built from, with govulncheck, and says how
# old the database is. It fails when one is found, and when there is no database to ask:
#
#   VULNDB=/path/vulndb.tgz   an archive or a directory laid out like the online database
#   VULNDB unset              the online database
#
# A database that is older than 120 days is warned of.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${GOVULNCHECK:?the Makefile says which version to run}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
db=()
if [ -n "${VULNDB:-}" ]; then
    if [ ! -e "$VULNDB" ]; then
        echo "VULNDB=$VULNDB: there is no such file; unset it to ask the online database" >&2
        exit 1
    fi
    root=$VULNDB
    if [ -f "$VULNDB" ]; then
        tar -xzf "$VULNDB" -C "$work"
        root=$work
    fi
    index=$(find "$root" -path '*index/db.json' -print -quit)
    if [ -z "$index" ]; then
        echo "VULNDB=$VULNDB: holds no index/db.json, so it is no vulnerability database" >&2
        exit 1
    fi
    db=(-db "file://$(cd "$(dirname "$index")/.." && pwd)")
fi

# The first run tells which database answered and how old it is; its exit status is 0 even with
# findings, so a failure means that there was none.
read -r -a govulncheck <<< "$GOVULNCHECK"
if ! "${govulncheck[@]}" "${db[@]}" -format json ./... > "$work/report.json" 2> "$work/complaint"; then
    cat "$work/complaint" >&2
    echo 'No vulnerability database could be asked; VULNDB names a copy of one.' >&2
    exit 1
fi
modified=$(sed -n 's/.*"db_last_modified": *"\([^"]*\)".*/\1/p' "$work/report.json" | head -n 1)
if [ -z "$modified" ]; then
    echo 'The vulnerability database does not say how old it is.' >&2
    exit 1
fi
age=$((($(date +%s) - $(date -d "$modified" +%s)) / 86400))
echo "vulnerability database of ${modified%%T*}, $age days old"
if [ "$age" -gt 120 ]; then
    echo "WARNING: the vulnerability database is older than 120 days; what was found since then is not known" >&2
fi
"${govulncheck[@]}" "${db[@]}" ./...
