#!/bin/bash
# Walks what the README says of `docker compose up`, with every compose there is on this machine
# (docker-compose and docker compose), then what postgres-test.sh and lesson-test.sh show.
#
#   deploy/test/compose-test.sh [walk] [nodes] [lesson]      (default: all three)
#
# Works from nothing as root on Debian: installs an engine, makes base images that cannot be pulled.
# Grafana is left out where its image cannot be pulled. Lines count the seconds since the beginning;
# no wait is longer than the limits of engine.sh, which has the other variables, too.
set -eu -o pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
cd "$HERE/../.."
# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$HERE/engine.sh"

readonly PROJECT=pgweir-walk
PASSED=0 COMPOSE=() PROGRAMS=()
WORK=$(mktemp -d)

# compose runs the compose that is being tried.
compose() { "${COMPOSE[@]}" --project-name $PROJECT "$@"; }

# ok counts a thing shown.
ok() { PASSED=$(( PASSED + 1 )); note "ok: $*"; }

# end shows the services' last words after a failure, and cleans up.
end() {
    local status=$?
    stop_watched
    if (( ${#COMPOSE[@]} )); then
        (( ! status )) || timeout 60 "${COMPOSE[@]}" --project-name $PROJECT logs --no-color --tail 40 2>&1 || true
        compose down --volumes --timeout 5 > /dev/null 2>&1 || true
    fi
    engine_down
    rm -rf "$WORK"
}

# through runs SQL through pgweir.
through() { timeout 120 psql -XAtq --no-password "$DSN" --command "$1"; }

# at runs SQL on a node, as its superuser.
at() { timeout 60 docker exec "$(compose ps -q "$1")" psql -XAtq -U postgres -d mydb -c "$2"; }

is() { [[ $(at "$1" "$2" 2> /dev/null) == "$3" ]]; }
healthy() { [[ $(docker inspect --format '{{.State.Health.Status}}' "$(compose ps -q "$1")" 2> /dev/null) == healthy ]]; }

# watches says whether a node's repmgrd would see the primary die.
watches() { [[ $(timeout 60 docker exec "$(compose ps -q "$1")" psql -XAtq -U postgres -d repmgr -c 'SELECT repmgr.repmgrd_is_running()' 2> /dev/null) == t ]]; }

# page gets a page of pgweir's admin address or of Prometheus, from inside of bash.
page() {
    local port=$1 path=$2
    exec 5<> "/dev/tcp/127.0.0.1/$port"
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$path" >&5
    timeout 30 cat <&5
    exec 5>&-
}

# counts says whether Prometheus finds a series for a query, which is given as it stands in a URL.
counts() { [[ $(page "$PROMETHEUS_PORT" "/api/v1/query?query=$1" 2> /dev/null) == *'"value":['* ]]; }

# ports takes the ports of .env, or others where somebody listens already.
ports() {
    local name port
    while IFS='=' read -r name port; do
        export "$name=$(free_port "$port")"
    done < <(grep -E '^[A-Z0-9_]+_PORT=' .env)
    DSN=postgresql://myuser:mypassword@127.0.0.1:$PGWEIR_PORT/mydb
}

# session opens one connection through pgweir and keeps it; say_to sends it a statement, and prints
# the one line that it answers.
session() { coproc SESSION { psql -XAtq --no-password "$DSN" 2>&1; }; }
say_to() {
    local answer
    printf '%s;\n' "$1" >&"${SESSION[1]}"
    read -r -t "$WAIT_LIMIT" answer <&"${SESSION[0]}" || fail "no answer within $WAIT_LIMIT s to $1"
    printf '%s' "$answer"
}

# walk brings everything up with one compose, uses it, kills the primary and takes everything down.
walk() {
    local answer pid new name began
    note "walking with ${COMPOSE[*]}"
    ports
    compose down --volumes --timeout 5 > /dev/null 2>&1 || true
    build "${COMPOSE[*]} up" "${COMPOSE[@]}" --project-name $PROJECT up --detach --build
    for name in postgres-primary-0 postgres-standby-1 postgres-standby-2 pgweir; do
        await "$name is healthy" healthy $name
    done
    ok "everything is up and healthy"

    through 'CREATE TABLE sample (id serial PRIMARY KEY, name text)'
    through "CREATE FUNCTION node_name() RETURNS text LANGUAGE sql STABLE AS \$\$ SELECT current_setting('cluster_name') \$\$"
    answer=$(through "INSERT INTO sample (name) VALUES ('Alice') RETURNING node_name()")
    [[ $answer == postgres-primary-0 ]] || fail "the write was answered by $answer"
    await "a read is answered by a standby" standby_reads
    ok "a write is answered by the primary, a read by a standby"

    answer=$(psql -XAtq "postgresql://myuser:mypassword@127.0.0.1:$PGWEIR_READ_PORT/mydb" -c "INSERT INTO sample (name) VALUES ('x')" 2>&1 || true)
    [[ $answer == *'read-only transaction'* ]] || fail "the reads-only listener said: $answer"
    answer=$(page "$PGWEIR_ADMIN_PORT" /readyz)
    [[ ${answer%%$'\r'*} == *' 200 '* ]] || fail "/readyz said: $answer"
    [[ $(page "$PGWEIR_ADMIN_PORT" /cluster) == *postgres-standby-2* ]] || fail "/cluster has no postgres-standby-2"
    ok "the reads-only listener refuses a write; /readyz and /cluster answer"

    await "Prometheus has a primary" counts 'pgweir:primaries:sum==1'
    await "Prometheus has three nodes" counts 'sum(pgweir_node_up)==3'
    ok "Prometheus has the series and the rules"
    if grafana; then
        await "Grafana answers" grafana_answers
        ok "Grafana has the dashboard"
    fi

    session
    pid=$SESSION_PID
    [[ $(say_to "SELECT count(*) FROM sample") == 1 ]] || fail "the session does not see the row"
    for name in postgres-standby-1 postgres-standby-2; do
        await "repmgrd watches on $name" watches $name
    done
    began=$SECONDS
    docker kill "$(compose ps -q postgres-primary-0)" > /dev/null
    new=$(say_to "INSERT INTO sample (name) VALUES ('Bob') RETURNING node_name()")
    [[ $new == postgres-standby-[12] ]] || fail "after the primary died the write was answered: $new"
    [[ $(say_to 'SELECT count(*) FROM sample') == 2 ]] || fail "a row is lost"
    kill -0 "$pid" || fail "the session ended"
    is "$new" 'SELECT pg_is_in_recovery()' f || fail "$new is no primary"
    ok "the primary was killed; the write of an open session went on at $new, at most $(( SECONDS - began + 1 )) s later"

    compose start postgres-primary-0 > /dev/null 2>&1
    await "the old primary streams" is postgres-primary-0 "SELECT pg_is_in_recovery(), status FROM pg_stat_wal_receiver" 't|streaming'
    [[ $(say_to "INSERT INTO sample (name) VALUES ('Carol') RETURNING node_name()") == "$new" ]] || fail "the primary changed again"
    await "a read is answered by the old primary" old_reads
    await "Prometheus sees two standbys" counts 'sum(pgweir_node_role%7Brole=%22standby%22%7D)==2'
    ok "the old primary rejoined as a standby and answers reads"

    printf '\\q\n' >&"${SESSION[1]}"
    wait "$pid" || true
    build "${COMPOSE[*]} down" "${COMPOSE[@]}" --project-name $PROJECT down --volumes --timeout 20
    [[ ! $(docker ps --all --quiet --filter label=com.docker.compose.project=$PROJECT) ]] || fail "a container is left"
    [[ ! $(docker volume ls --quiet --filter label=com.docker.compose.project=$PROJECT) ]] || fail "a volume is left"
    ok "everything is down"
}

# standby_reads and old_reads say whether a read goes where it should; several are tried, since the
# standbys share them.
standby_reads() { [[ $(through 'SELECT node_name() FROM sample LIMIT 1') == postgres-standby-[12] ]]; }
old_reads() { [[ $(through 'SELECT node_name() FROM sample LIMIT 1') == postgres-primary-0 ]]; }

# grafana says whether Grafana's image is here or can be had.
grafana() { [[ ${COMPOSE_PROFILES-grafana} == grafana ]]; }
grafana_answers() { [[ $(page "$GRAFANA_PORT" /api/dashboards/uid/pgweir-overview 2> /dev/null) == *'"title":"pgweir overview"'* ]]; }

# leave_out_grafana turns its profile off where its image cannot be had.
leave_out_grafana() {
    local image
    image=$(awk '$1 == "image:" && $2 ~ /grafana/ { print $2 }' docker-compose.yml)
    docker image inspect "$image" > /dev/null 2>&1 || watched 300 "$WORK/pull.log" docker pull "$image" || {
        note "$image cannot be pulled: its profile is left out"
        export COMPOSE_PROFILES=none
    }
}

# find_composes sets PROGRAMS to the compose programs of this machine, installing one if there is none.
find_composes() {
    docker compose version > /dev/null 2>&1 || need_packages docker-compose=docker-compose
    ! command -v docker-compose > /dev/null || PROGRAMS+=("docker-compose")
    ! docker compose version > /dev/null 2>&1 || PROGRAMS+=("docker compose")
    (( ${#PROGRAMS[@]} )) || fail "there is neither docker-compose nor docker compose"
}

trap end EXIT
(( $# )) || set -- walk nodes lesson
need_packages psql=postgresql-client update-ca-certificates=ca-certificates
engine_up
# Modules reach the build as they reach this machine. What Go does anyway is left out, as in the
# lesson's plain docker build, which then finds the layers that are here.
if command -v go > /dev/null; then
    GOPROXY=$(go env GOPROXY) GOSUMDB=$(go env GOSUMDB)
    [[ $GOPROXY != https://proxy.golang.org,direct ]] || GOPROXY=''
    [[ $GOSUMDB != sum.golang.org ]] || GOSUMDB=''
    export GOPROXY GOSUMDB
fi
export COMPOSE_DOCKER_CLI_BUILD=0    # docker-compose builds by itself
for part in "$@"; do
    case $part in
        walk)
            deploy/images/make.sh
            leave_out_grafana
            find_composes
            for program in "${PROGRAMS[@]}"; do
                read -r -a COMPOSE <<< "$program"
                walk
            done
            COMPOSE=()
            ;;
        nodes)  deploy/test/postgres-test.sh; ok "postgres-test" ;;
        lesson) deploy/test/lesson-test.sh; ok "lesson-test" ;;
        *)      fail "no part $part; there are walk, nodes and lesson" ;;
    esac
done
if [[ ${ENGINE_IS_OURS:-} ]]; then
    [[ ! $(leftovers) ]] || fail "containers are left: $(leftovers | tr '\n' ' ')"
    ok "no container is left"
fi
note "compose-test: $PASSED passed, 0 failed"
