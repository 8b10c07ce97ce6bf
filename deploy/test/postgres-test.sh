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
sql() { docker exec "$1" psql -XAtq -U postgres -d mydb -c "$2"; }

is() { [[ $(sql "$1" "$2" 2> /dev/null) == "$3" ]]; }
said() { docker logs "$1" 2>&1 | grep -qF -- "$2"; }
healthy() { [[ $(docker inspect --format '{{.State.Health.Status}}' "$1") == healthy ]]; }
primary() { is "$1" 'SELECT pg_is_in_recovery()' f; }
streams() { is "$1" "SELECT status FROM pg_stat_wal_receiver" streaming; }

# ok counts a thing shown.
ok() { PASSED=$(( PASSED + 1 )); note "ok: $*"; }

# promoted waits until one of the nodes given is primary, and sets NEW to it.
promoted() {
    local end=$(( SECONDS + 60 )) node
    while (( SECONDS < end )); do
        for node in "$@"; do
            if primary "$node"; then NEW=$node; return 0; fi
        done
        sleep 0.3
    done
    fail "nobody was promoted"
}

trap end EXIT
need_packages docker=docker.io
engine_up
deploy/images/make.sh debian
docker build --quiet --tag $IMAGE deploy/postgres > /dev/null
clean
docker network create $NET > /dev/null

# --- up
node "${NODES[0]}" "${NODES[0]}" --env REPMGR_PARTNER_NODE=x
node "${NODES[1]}" "${NODES[1]}"
node "${NODES[2]}" "${NODES[2]}"
for n in "${NODES[@]}"; do wait_until 90 healthy "$n" || fail "$n is not healthy"; done
said "${NODES[0]}" 'REPMGR_PARTNER_NODE is not a name this image knows; nothing reads it (did you mean REPMGR_PARTNER_NODES?)' || fail "no word about an unknown name"
primary "${NODES[0]}" || fail "${NODES[0]} is not primary"
sql "${NODES[0]}" 'CREATE TABLE kept (i int); INSERT INTO kept VALUES (1)'
for n in "${NODES[@]:1}"; do wait_until 20 is "$n" 'SELECT i FROM kept' 1 || fail "$n has not the row"; done
docker exec --env "PGPASSWORD=my'pass" "${NODES[1]}" psql -XAtqc 'SELECT 1' "host=${NODES[2]} user=myuser dbname=mydb" > /dev/null
ok "one primary and two standbys, by the example's user and database"

# --- promotion, and a primary that was away while it happened
docker kill "${NODES[0]}" > /dev/null
promoted "${NODES[1]}" "${NODES[2]}"
first=$NEW
for n in "${NODES[@]:1}"; do [[ $n == "$first" ]] || other=$n; done
sql "$first" 'INSERT INTO kept VALUES (2)'
wait_until 30 is "$other" 'SELECT max(i) FROM kept' 2 || fail "$other does not follow $first"
ok "repmgr promoted $first, $other follows it"

docker network disconnect $NET "${NODES[0]}"
docker start "${NODES[0]}" > /dev/null
wait_until 40 primary "${NODES[0]}" || fail "${NODES[0]} did not start alone"
sql "${NODES[0]}" 'INSERT INTO kept VALUES (99)'
docker network connect --alias "${NODES[0]}" $NET "${NODES[0]}"
wait_until 60 is "${NODES[0]}" 'SELECT pg_is_in_recovery(), max(i) FROM kept' 't|2' || fail "${NODES[0]} did not step down and rejoin"
said "${NODES[0]}" 'stepping down' || fail "no word about stepping down"
said "${NODES[0]}" 'pg_rewind: Done!' || fail "no pg_rewind"
wait_until 30 streams "${NODES[0]}" || fail "${NODES[0]} does not stream"
ok "a primary that came back cut off steps down when it sees the new one, and rejoins by pg_rewind"

# --- no writable start beside a newer primary
docker kill "$first" > /dev/null
promoted "${NODES[0]}" "$other"
sql "$NEW" 'INSERT INTO kept VALUES (3)'
docker start "$first" > /dev/null
wait_until 60 is "$first" 'SELECT pg_is_in_recovery(), max(i) FROM kept' 't|3' || fail "$first did not rejoin"
said "$first" 'refusing to start writable' || fail "$first says nothing of refusing"
(( $(docker logs "$first" 2>&1 | grep -c 'starting as primary') == 0 )) || fail "$first started writable"
ok "a former primary refuses to start writable beside a newer one, and rejoins"

# --- a fresh clone where pg_rewind cannot work
second=$NEW
wait_until 30 streams "$first" || fail "$first does not stream"
for n in "${NODES[@]}"; do wait_until 40 healthy "$n" || fail "$n is not healthy"; done
docker kill "$second" > /dev/null
for n in "${NODES[@]}"; do [[ $n == "$second" ]] || rest+=("$n"); done
promoted "${rest[@]}"
docker run --rm --volume "$second:/bitnami/postgresql" $IMAGE \
    bash -c 'rm -f /bitnami/postgresql/data/pg_wal/0*'
docker start "$second" > /dev/null
wait_until 60 is "$second" 'SELECT pg_is_in_recovery(), max(i) FROM kept' 't|3' || fail "$second did not clone"
said "$second" 'pg_rewind cannot bring this data to the new line' || fail "$second did not try pg_rewind first"
docker exec "$second" test -d /bitnami/postgresql/data.old || fail "the former data is gone"
ok "where pg_rewind cannot work the node clones anew and keeps the former data"

# --- stopping
wait_until 30 healthy "$second" || fail "$second is not healthy"
docker stop --time 20 "$second" > /dev/null
[[ $(docker inspect --format '{{.State.ExitCode}}' "$second") == 0 ]] || fail "a stop is not a success"
docker logs --tail 15 "$second" 2>&1 | grep -q 'database system is shut down' || fail "the server was not shut down in order"
ok "docker stop shuts the server down in order"
clean

# --- one volume, two nodes
docker network create $NET > /dev/null
node "${NODES[0]}" pgnode-test-shared
wait_until 60 healthy "${NODES[0]}" || fail "${NODES[0]} is not healthy"
sql "${NODES[0]}" 'CREATE TABLE shared (i int); INSERT INTO shared VALUES (7)'
node "${NODES[1]}" pgnode-test-shared
wait_until 20 said "${NODES[1]}" 'one node runs at a time on a shared volume: waiting' || fail "${NODES[1]} does not wait"
docker kill "${NODES[0]}" > /dev/null
wait_until 60 healthy "${NODES[1]}" || fail "${NODES[1]} did not take over"
[[ $(sql "${NODES[1]}" 'SELECT i, pg_is_in_recovery() FROM shared') == '7|f' ]] || fail "${NODES[1]} has not the row"
docker start "${NODES[0]}" > /dev/null
sleep 2
! docker top "${NODES[0]}" | grep -q 'postgres -D' || fail "two servers on one volume"
docker stop "${NODES[0]}" > /dev/null
ok "on a shared volume one node runs at a time, and the other takes over"

note "postgres-test: $PASSED passed, 0 failed"
