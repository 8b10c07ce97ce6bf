#!/bin/bash
# What the PostgreSQL image promises, with real containers: cloning, promotion by repmgr, rejoining by
# pg_rewind and by a fresh clone, no writable start beside a newer primary, stepping down when
# overtaken, stopping in order, one volume shared by two nodes, unknown names.
#
#   deploy/test/postgres-test.sh      (root; Docker engine as in engine.sh)
set -eu -o pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
cd "$HERE/../.."
# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$HERE/engine.sh"

readonly IMAGE=pgweir/postgres-repmgr:15
readonly NET=pgnode-test
readonly NODES=(pgnode-test-0 pgnode-test-1 pgnode-test-2)
readonly WAITS='one node runs at a time on a shared volume: waiting'
PASSED=0

# clean removes containers, volumes and network of this test.
clean() {
    docker rm -f "${NODES[@]}" > /dev/null 2>&1 || true
    docker volume rm "${NODES[@]}" pgnode-test-shared > /dev/null 2>&1 || true
    docker network rm $NET > /dev/null 2>&1 || true
}

# end shows the nodes' last words after a failure, and cleans up.
end() {
    local status=$? node
    stop_watched
    if (( status )); then
        for node in "${NODES[@]}"; do
            printf -- '--- %s\n' "$node"
            docker logs --tail 40 "$node" 2>&1 || true
        done
    fi
    clean
    engine_down
}

# node starts a node: its name, its volume, further arguments of docker run.
node() {
    local name=$1 volume=$2
    shift 2
    docker run --detach --name "$name" --hostname "$name" --network $NET --volume "$volume:/bitnami/postgresql" \
        --env REPMGR_PRIMARY_HOST="${NODES[0]}" --env REPMGR_NODE_NAME="$name" --env REPMGR_NODE_NETWORK_NAME="$name" \
        --env REPMGR_PARTNER_NODES="${NODES[0]},${NODES[1]}:5432,${NODES[2]}" --env 'REPMGR_PASSWORD=rep:m\gr' \
        --env "POSTGRESQL_PASSWORD=my'pass" "$@" $IMAGE > /dev/null
}

# sql asks a node directly, as the superuser.
sql() { timeout 60 docker exec "$1" psql -XAtq -U postgres -d mydb -c "$2"; }

is() { [[ $(sql "$1" "$2" 2> /dev/null) == "$3" ]]; }
said() { [[ $(docker logs "$1" 2>&1) == *"$2"* ]]; }
healthy() { [[ $(docker inspect --format '{{.State.Health.Status}}' "$1") == healthy ]]; }
watches() { [[ $(timeout 60 docker exec "$1" psql -XAtq -U postgres -d repmgr -c 'SELECT repmgr.repmgrd_is_running()' 2> /dev/null) == t ]]; }
primary() { is "$1" 'SELECT pg_is_in_recovery()' f; }
streams() { is "$1" "SELECT status FROM pg_stat_wal_receiver" streaming; }

# ok counts a thing shown.
ok() { PASSED=$(( PASSED + 1 )); note "ok: $*"; }

# promoted waits until one of the nodes given is primary, and sets NEW to it.
promoted() { await "one of $* is promoted" any_primary "$@"; }
any_primary() {
    for NEW in "$@"; do
        ! primary "$NEW" || return 0
    done
    return 1
}

trap end EXIT
need_packages docker=docker.io
engine_up
deploy/images/make.sh debian
build "building $IMAGE" docker build --tag $IMAGE deploy/postgres
clean
docker network create $NET > /dev/null

# --- up
node "${NODES[0]}" "${NODES[0]}" --env REPMGR_PARTNER_NODE=x
node "${NODES[1]}" "${NODES[1]}"
node "${NODES[2]}" "${NODES[2]}"
for n in "${NODES[@]}"; do await "$n is healthy" healthy "$n"; done
said "${NODES[0]}" 'REPMGR_PARTNER_NODE is not a name this image knows; nothing reads it (did you mean REPMGR_PARTNER_NODES?)' || fail "no word about an unknown name"
primary "${NODES[0]}" || fail "${NODES[0]} is not primary"
sql "${NODES[0]}" 'CREATE TABLE kept (i int); INSERT INTO kept VALUES (1)'
for n in "${NODES[@]:1}"; do await "$n has the row" is "$n" 'SELECT i FROM kept' 1; done
docker exec --env "PGPASSWORD=my'pass" "${NODES[1]}" psql -XAtqc 'SELECT 1' "host=${NODES[2]} user=myuser dbname=mydb" > /dev/null
ok "one primary and two standbys, by the example's user and database"

# --- promotion, and a primary that was away while it happened
for n in "${NODES[@]:1}"; do await "repmgrd watches on $n" watches "$n"; done
docker kill "${NODES[0]}" > /dev/null
promoted "${NODES[1]}" "${NODES[2]}"
first=$NEW
for n in "${NODES[@]:1}"; do [[ $n == "$first" ]] || other=$n; done
sql "$first" 'INSERT INTO kept VALUES (2)'
await "$other follows $first" is "$other" 'SELECT max(i) FROM kept' 2
ok "repmgr promoted $first, $other follows it"

docker network disconnect $NET "${NODES[0]}"
# What a killed server leaves beside its socket must not keep it from starting: PostgreSQL refuses an empty lock, and one
# whose number is another process's by now.
docker cp /dev/null "${NODES[0]}:/var/run/postgresql/.s.PGSQL.5432.lock" > /dev/null
docker start "${NODES[0]}" > /dev/null
await "${NODES[0]} has started alone" primary "${NODES[0]}"
sql "${NODES[0]}" 'INSERT INTO kept VALUES (99)'
docker network connect --alias "${NODES[0]}" $NET "${NODES[0]}"
await "${NODES[0]} has stepped down and rejoined" is "${NODES[0]}" 'SELECT pg_is_in_recovery(), max(i) FROM kept' 't|2'
said "${NODES[0]}" 'stepping down' || fail "no word about stepping down"
said "${NODES[0]}" 'pg_rewind: Done!' || fail "no pg_rewind"
await "${NODES[0]} streams" streams "${NODES[0]}"
ok "a primary that came back cut off steps down when it sees the new one, and rejoins by pg_rewind"

# --- no writable start beside a newer primary
for n in "${NODES[0]}" "$other"; do await "repmgrd watches on $n" watches "$n"; done
docker kill "$first" > /dev/null
promoted "${NODES[0]}" "$other"
sql "$NEW" 'INSERT INTO kept VALUES (3)'
docker start "$first" > /dev/null
await "$first has rejoined" is "$first" 'SELECT pg_is_in_recovery(), max(i) FROM kept' 't|3'
said "$first" 'refusing to start writable' || fail "$first says nothing of refusing"
(( $(docker logs "$first" 2>&1 | grep -c 'starting as primary') == 0 )) || fail "$first started writable"
ok "a former primary refuses to start writable beside a newer one, and rejoins"

# --- a fresh clone where pg_rewind cannot work
second=$NEW
await "$first streams" streams "$first"
for n in "${NODES[@]}"; do
    await "$n is healthy" healthy "$n"
    await "repmgrd watches on $n" watches "$n"
done
docker kill "$second" > /dev/null
for n in "${NODES[@]}"; do [[ $n == "$second" ]] || rest+=("$n"); done
promoted "${rest[@]}"
docker run --rm --volume "$second:/bitnami/postgresql" $IMAGE \
    bash -c 'rm -f /bitnami/postgresql/data/pg_wal/0*'
docker start "$second" > /dev/null
await "$second has cloned" is "$second" 'SELECT pg_is_in_recovery(), max(i) FROM kept' 't|3'
said "$second" 'pg_rewind cannot bring this data to the new line' || fail "$second did not try pg_rewind first"
docker exec "$second" test -d /bitnami/postgresql/data.old || fail "the former data is gone"
ok "where pg_rewind cannot work the node clones anew and keeps the former data"

# --- stopping
await "$second is healthy" healthy "$second"
docker stop --time "$WAIT_LIMIT" "$second" > /dev/null
[[ $(docker inspect --format '{{.State.ExitCode}}' "$second") == 0 ]] || fail "a stop is not a success"
[[ $(docker logs --tail 15 "$second" 2>&1) == *'database system is shut down'* ]] || fail "the server was not shut down in order"
ok "docker stop shuts the server down in order"
clean

# --- one volume, two nodes
docker network create $NET > /dev/null
node "${NODES[0]}" pgnode-test-shared
await "${NODES[0]} is healthy" healthy "${NODES[0]}"
sql "${NODES[0]}" 'CREATE TABLE shared (i int); INSERT INTO shared VALUES (7)'
node "${NODES[1]}" pgnode-test-shared
await "${NODES[1]} waits" said "${NODES[1]}" "$WAITS"
docker kill "${NODES[0]}" > /dev/null
await "${NODES[1]} has taken over" healthy "${NODES[1]}"
[[ $(sql "${NODES[1]}" 'SELECT i, pg_is_in_recovery() FROM shared') == '7|f' ]] || fail "${NODES[1]} has not the row"
docker start "${NODES[0]}" > /dev/null
await "${NODES[0]} waits" said "${NODES[0]}" "$WAITS"
[[ $(docker top "${NODES[0]}") != *'postgres -D'* ]] || fail "two servers on one volume"
docker stop "${NODES[0]}" > /dev/null
ok "on a shared volume one node runs at a time, and the other takes over"

note "postgres-test: $PASSED passed, 0 failed"
