#!/bin/bash
# Runs the commands of a lesson exactly as they stand there, in their order, and compares what they
# print with the blocks that follow them.
#
#   deploy/test/lesson-test.sh [docs/lesson.md]
#
# A block fenced as sh is run with bash; one fenced as "sh fails" must fail. A block fenced as text
# directly behind one holds lines that its output must have, in this order; … stands for anything.
set -eu -o pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
cd "$HERE/../.."
# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$HERE/engine.sh"

readonly LESSON=${1:-docs/lesson.md}
readonly CONTAINERS=(pgweir postgres-primary-0 postgres-standby-1)
readonly VOLUMES=(pgweir-state postgres-primary-0 postgres-standby-1 postgres-shared)
WORK=$(mktemp -d)
BLOCKS=0 CHECKED=0 STARTED=''

# The lesson's names are those that a reader has, too: on an engine that is not ours nothing of them
# may be there. On our own it is what a test that was killed has left.
nothing_there() {
    local name
    for name in "${CONTAINERS[@]}"; do
        ! docker container inspect "$name" > /dev/null 2>&1 || fail "this engine has a container $name; the lesson needs the name"
    done
    for name in "${VOLUMES[@]}"; do
        ! docker volume inspect "$name" > /dev/null 2>&1 || fail "this engine has a volume $name; the lesson needs the name"
    done
    ! docker network inspect my-network > /dev/null 2>&1 || fail "this engine has a network my-network; the lesson needs the name"
}

# clean removes what the lesson makes, also when it stopped half-way.
clean() {
    docker rm --force --volumes "${CONTAINERS[@]}" > /dev/null 2>&1 || true
    docker volume rm "${VOLUMES[@]}" > /dev/null 2>&1 || true
    docker network rm my-network > /dev/null 2>&1 || true
}

# end shows the containers' last words after a failure, and cleans up.
end() {
    local status=$? name
    stop_watched
    if [[ $STARTED ]]; then
        (( ! status )) || for name in "${CONTAINERS[@]}"; do
            printf -- '--- %s\n' "$name"
            docker logs --tail 30 "$name" 2>&1 || true
        done
        clean
    fi
    rm -rf "$WORK"
    engine_down
}

# split writes the blocks of the lesson as NNN.sh, NNN.fails and NNN.text. Text counts only if
# nothing but blank lines stands between it and its commands.
split() {
    awk -v dir="$WORK" '
        !inside && /^```/ {
            inside = 1; kind = substr($0, 4); file = ""
            if (kind == "sh" || kind == "sh fails") {
                n++; file = sprintf("%s/%03d.sh", dir, n); near = 1
                if (kind == "sh fails") { marker = sprintf("%s/%03d.fails", dir, n); print "" > marker; close(marker) }
            } else if (kind == "text" && near) {
                file = sprintf("%s/%03d.text", dir, n); near = 0
            } else near = 0
            next
        }
        inside && /^```$/ { inside = 0; if (file) close(file); next }
        inside { if (file) print > file; next }
        /[^ ]/ { near = 0 }' "$LESSON"
}

# compare looks for the lines of a text block in the output, in their order.
compare() {
    awk '
        function literal(s) { gsub(/[][\\.^$*+?(){}|]/, "\\\\&", s); return s }
        NR == FNR { if ($0 ~ /[^ ]/) want[++n] = $0; next }
        BEGIN { at = 1 }
        {
            if (at <= n) {
                parts = split(want[at], part, "…"); pattern = ""
                for (i = 1; i <= parts; i++) pattern = pattern (i > 1 ? ".*" : "") literal(part[i])
                if ($0 ~ "^" pattern "[ ]*$") at++
            }
        }
        END { if (at <= n) { print want[at]; exit 1 } }' "$1" "$2"
}

trap end EXIT
need_packages docker=docker.io psql=postgresql-client
engine_up
deploy/images/make.sh debian golang
split
if [[ ${ENGINE_IS_OURS:-} ]]; then clean; else nothing_there; fi
STARTED=1
while read -r port; do
    await "port $port of 127.0.0.1 is free" port_free "$port"
done < <(grep -o '127\.0\.0\.1:[0-9]*:' "$LESSON" | cut -d : -f 2 | sort -u)
for block in "$WORK"/*.sh; do
    BLOCKS=$(( BLOCKS + 1 ))
    note "$LESSON, block $BLOCKS: $(head -n 1 "$block")"
    status=0
    limit=$WAIT_LIMIT
    ! grep -q 'docker build' "$block" || limit=$BUILD_LIMIT
    watched "$limit" "$WORK/out" bash -eu -o pipefail "$block" || status=$?
    if (( status == 124 )); then
        tail -n 40 "$WORK/out"
        fail "block $BLOCKS was not done within $limit s"
    fi
    if [[ -e ${block%.sh}.fails ]]; then
        (( status != 0 )) || fail "block $BLOCKS should fail and did not"
    elif (( status != 0 )); then
        cat "$WORK/out"
        fail "block $BLOCKS ended with status $status"
    fi
    if [[ -e ${block%.sh}.text ]]; then
        CHECKED=$(( CHECKED + 1 ))
        absent=$(compare "${block%.sh}.text" "$WORK/out") || { cat "$WORK/out"; fail "block $BLOCKS printed no line: $absent"; }
    fi
done
(( BLOCKS >= 20 && CHECKED >= 12 )) || fail "only $BLOCKS blocks and $CHECKED outputs found in $LESSON"
note "$LESSON: $BLOCKS blocks run, $CHECKED outputs compared"
note "lesson-test: $BLOCKS passed, 0 failed"
