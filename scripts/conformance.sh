#!/usr/bin/env bash
# Runs PostgreSQL's own test suites through pgweir, and straight at the primary to compare with:
#
#   conformance.sh direct default global isolation-direct isolation
#
#   direct             the regression suite on the primary alone
#   default            through pgweir, pool_mode: transaction, the default consistency
#   global             the same at consistency: global
#   isolation-direct   the isolation suite on the primary alone
#   isolation          through pgweir, pool_mode: session, backend_pid: real
#
# Without arguments all of them run, in this order. Each run has a primary and two streaming standbys of
# its own, and prints how many tests passed and how many of the SELECTs standbys answered, as
# pg_stat_statements of each node counts them. A run of the regression suite through pgweir in which that is
# less than MIN_SHARE (5) per cent says nothing about read splitting and fails. Tests that are known to differ, and
# why, stand in conformance.known beside this script; any other difference from the expected output is a
# failure.
#
#   TESTS='select join'   only these tests, in this order (regression suite: after test_setup)
#   MAJOR=15              the version of PostgreSQL; the newest one of the distribution by default
#   CONFORMANCE_OUT=DIR   where differences, results and logs are kept
#
# Exits 1 when a run through pgweir failed, 2 when it could not be run.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

die() { printf 'conformance.sh: %s\n' "$*" >&2; exit 2; }

major=${MAJOR:-$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sed 's|.*postgresql/\([0-9]*\)/.*|\1|' | sort -n | tail -n 1)}
[ -n "$major" ] || die 'there is no PostgreSQL of the distribution: scripts/need.sh conformance'
suites=$(internal/e2e/fetch-regress.sh "$major") || die 'the suites could not be had'
bins=$suites/root/usr/lib/postgresql/$major/bin
drivers=$suites/root/usr/lib/postgresql/$major/lib/pgxs/src/test
echo "PostgreSQL $(cat "$suites/version")"

work=$(mktemp -d /tmp/pgweir-conformance.XXXXXX)
out=${CONFORMANCE_OUT:-$(dirname "$suites")/conformance-$major}
mkdir -p "$out"
nodes=(one two three) proxy=

# The servers refuse to run as root. Everything that shares files with them runs as their user, too.
if [ "$(id -u)" = 0 ]; then
    as=(runuser -u postgres --)
    chown postgres: "$work"
else
    as=()
fi
# The variables of the person who runs this must not reach the suites.
for name in $(compgen -e PG | grep -v '^PGWEIR_' || true); do unset "$name"; done
unset "${!PGWEIR_@}"
# A session that waits for what never comes must not hold the isolation suite up for six minutes.
export LC_ALL=C.UTF-8 PGPASSWORD=conformance PGISOLATIONTIMEOUT=60

# stop ends the proxy and the nodes of the present run.
stop() {
    local node
    if [ -n "$proxy" ]; then
        kill -QUIT "$proxy" 2> /dev/null || true
        wait "$proxy" 2> /dev/null || true
        proxy=
    fi
    for node in "${nodes[@]}"; do
        if [ -e "$work/$node/postmaster.pid" ]; then
            "${as[@]}" "$bins/pg_ctl" stop -D "$work/$node" -m immediate -s || true
        fi
    done
    for node in "${nodes[@]}"; do rm -rf "${work:?}/$node"; done
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# free_ports prints as many ports as asked for that nobody listens on.
free_ports() {
    local port found=0
    for port in $(shuf -i 20000-29999 -n 200); do
        if ! (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then
            echo "$port"
            found=$((found + 1))
            if [ "$found" = "$1" ]; then return; fi
        fi
    done
}

# ask runs a query at the node with that port, as the superuser over the Unix socket.
ask() { "${as[@]}" "$bins/psql" -XAtq -h "$work" -p "$1" -U postgres -d "${3:-postgres}" -c "$2"; }

# start_nodes brings up a primary and two standbys that stream from it. Reads of the suites that take long are
# waited for by replay only as long as a user's would be.
start_nodes() {
    local i node
    mapfile -t ports < <(free_ports 5)
    echo "$PGPASSWORD" | "${as[@]}" tee "$work/password" > /dev/null
    "${as[@]}" "$bins/initdb" -D "$work/one" -U postgres --pwfile="$work/password" --auth-local=trust --auth-host=scram-sha-256 \
        --encoding=UTF8 --locale=C --no-sync > "$work/initdb.log" || { cat "$work/initdb.log"; die 'initdb failed'; }
    "${as[@]}" tee -a "$work/one/postgresql.conf" > /dev/null <<- CONF
		listen_addresses = '127.0.0.1'
		unix_socket_directories = '$work'
		fsync = off
		shared_buffers = 128MB
		max_connections = 200
		max_prepared_transactions = 20
		max_wal_size = 1GB
		wal_keep_size = 2GB
		shared_preload_libraries = 'pg_stat_statements'
		pg_stat_statements.max = 50000
		compute_query_id = regress
		pg_stat_statements.track = top
	CONF
    echo 'host replication all 127.0.0.1/32 scram-sha-256' | "${as[@]}" tee -a "$work/one/pg_hba.conf" > /dev/null
    for i in 0 1 2; do
        node=${nodes[i]}
        if [ "$i" != 0 ]; then
            "${as[@]}" "$bins/pg_basebackup" -D "$work/$node" -R -c fast --no-sync \
                -d "host=127.0.0.1 port=${ports[0]} user=postgres password=$PGPASSWORD application_name=$node" ||
                die "pg_basebackup of $node failed"
        fi
        "${as[@]}" "$bins/pg_ctl" start -D "$work/$node" -s -w -l "$work/$node.log" -o "-p ${ports[i]}" ||
            { tail "$work/$node.log"; die "node $node did not start"; }
    done
    ask "${ports[0]}" 'CREATE EXTENSION pg_stat_statements'
    ask "${ports[0]}" "CREATE ROLE weir_monitor SUPERUSER LOGIN PASSWORD '$PGPASSWORD'"
}

# start_proxy starts pgweir in front of the nodes: start_proxy POOL_MODE CONSISTENCY.
start_proxy() {
    local address=127.0.0.1:${ports[4]} _
    cat > "$work/pgweir.yaml" <<- CONF
		listen: "127.0.0.1:${ports[3]}"
		admin: {listen: "$address"}
		nodes: ["127.0.0.1:${ports[0]}", "127.0.0.1:${ports[1]}", "127.0.0.1:${ports[2]}"]
		monitor: {user: weir_monitor, password: $PGPASSWORD}
		users: {postgres: {password: $PGPASSWORD}}
		pool_mode: $1
		backend_pid: real
		consistency: $2
		pool_size: 60
		# The machine may be busy, and nothing here is about nodes that fail or about how long a read takes.
		freshness_wait: 200ms
		trust_window: 5s
		probe: {timeout: 5s, fall: 10}
	CONF
    "$root/bin/pgweir" serve -c "$work/pgweir.yaml" > "$work/pgweir.log" 2>&1 &
    proxy=$!
    for _ in $(seq 300); do
        kill -0 "$proxy" 2> /dev/null || { tail "$work/pgweir.log"; die 'pgweir did not start'; }
        if ready "$address"; then return; fi
        sleep 0.1
    done
    tail "$work/pgweir.log"
    die 'pgweir did not get ready'
}

# page prints what an address answers to GET of a path, status line and headers included.
page() (
    exec 3<> "/dev/tcp/${1%:*}/${1#*:}" || return 1
    printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3
    cat <&3
) 2> /dev/null

# ready says whether pgweir's /readyz says yes.
ready() { [[ $(page "$1" /readyz | head -n 1) == *' 200 '* ]]; }

# reads prints how many statements that begin as a read a node has answered for the suite's users.
reads() {
    ask "$1" "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
        WHERE r.rolname <> 'weir_monitor' AND s.dbid = (SELECT oid FROM pg_database WHERE datname = '$2')
        AND s.query ~* '^[\\s(]*(select|values|table|with)\\M'"
}

# reasons prints what most statements went to the primary for, as pgweir counts them.
reasons() {
    page "127.0.0.1:${ports[4]}" /metrics | sed -n 's/^pgweir_routes_total{.*reason="\([a-z_]*\)",target="primary"} \([0-9]*\)$/\2 \1/p' |
        sort -rn | head -n 6 | awk '{ printf "%s%s %d", (NR > 1 ? ", " : ""), $2, $1 }'
}

# run runs one suite against a port and sets `passed` and `total`: run SUITE DATABASE PORT LOG.
run() {
    local suite=$1 database=$2 port=$3 log=$4 driver args tests=()
    rm -rf "$work/results"
    "${as[@]}" mkdir "$work/results"
    args=(--bindir="$bins" --inputdir="$suites/$suite" --outputdir="$work/results" --dlpath="$suites/lib"
        --host=127.0.0.1 --port="$port" --user=postgres --dbname="$database")
    if [ "$suite" = regress ]; then
        driver=$drivers/regress/pg_regress
        args+=(--max-concurrent-tests=20)
        tests=(test_setup)
    else
        # The driver looks for isolationtester beside the directory it is started from.
        driver=$drivers/isolation/pg_isolation_regress
    fi
    if [ -n "${TESTS:-}" ]; then
        # shellcheck disable=SC2206 # several names
        tests+=($TESTS)
    else
        tests=()
        args+=(--schedule="$suites/$suite/$([ "$suite" = regress ] && echo parallel_schedule || echo isolation_schedule)")
    fi
    (cd "$work/results" && "${as[@]}" "$driver" "${args[@]}" "${tests[@]}") 2>&1 | tee "$log" || true
    total=$(grep -cE '\.\.\. (ok|FAILED)' "$log" || true)
    failed=$(failures "$log")
    passed=$((total - $(wc -w <<< "$failed")))
}

# failures prints the names of the tests that failed, of what the driver wrote.
failures() { sed -nE 's/^(test)? +([a-z0-9_.-]+) +\.\.\. FAILED.*/\2/p' "$1" | tr '\n' ' '; }

# known prints which of the failed tests are in the list of this kind of run.
known() {
    local name
    for name in $2; do
        if grep -qE "^$1 +$name " scripts/conformance.known 2> /dev/null; then printf '%s ' "$name"; fi
    done
}

summary=() bad=0
for kind in "${@:-direct default global isolation-direct isolation}"; do
    for what in $kind; do
        case $what in
            direct | default | global) suite=regress database=regression ;;
            isolation-direct | isolation) suite=isolation database=isolation_regression ;;
            *) die "unknown run $what" ;;
        esac
        echo "== $what"
        began=$SECONDS
        start_nodes
        port=${ports[3]}
        case $what in
            direct | isolation-direct) port=${ports[0]} ;;
            default) start_proxy transaction application ;;
            global) start_proxy transaction global ;;
            isolation) start_proxy session application ;;
        esac
        mkdir -p "$out/$what"
        run "$suite" "$database" "$port" "$out/$what/driver.log"
        line=$(printf '%-16s %3d of %d passed' "$what" "$passed" "$total")
        one=$(reads "${ports[0]}" "$database") two=$(reads "${ports[1]}" "$database") three=$(reads "${ports[2]}" "$database")
        share=$(awk "BEGIN { printf \"%.1f\", $one + $two + $three ? 100 * ($two + $three) / ($one + $two + $three) : 0 }")
        line+=", standbys answered $share % of $((one + two + three)) SELECTs ($two and $three)"
        if [ -n "$proxy" ]; then line+="; the primary's by reason: $(reasons)"; fi
        if [ -n "$failed" ]; then line+="; failed: $failed"; fi
        case $what in
            direct | isolation-direct) ;;
            *)
                expected=$(known "$what" "$failed")
                if [ "$(wc -w <<< "$failed")" != "$(wc -w <<< "$expected")" ] || [ "$total" = 0 ]; then bad=1; fi
                # The isolation suite pins every session at its start: it shows process ids, locks and waits.
                if [ "$suite" = regress ] && [ -z "${TESTS:-}" ] && awk "BEGIN { exit !($share < ${MIN_SHARE:-5}) }"; then
                    line+="; too few on standbys for the run to count"
                    bad=1
                fi
                ;;
        esac
        summary+=("$line, $((SECONDS - began)) s")
        stop
        rm -rf "$out/$what/results"
        cp -r "$work/results/." "$out/$what/"
        mv "$work"/*.log "$out/$what/"
    done
done
printf '\n'
printf '%s\n' "${summary[@]}"
echo "differences (regression.diffs), results and logs: $out"
exit "$bad"
