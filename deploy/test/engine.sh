# shellcheck shell=bash
# A Docker engine for tests: the one that answers, or one of our own; and how these tests wait.
# Sourced.
#
#   engine_up     sets DOCKER_HOST where the engine is ours; ends the script where there is none
#   engine_down   ends what engine_up started, by its pid
#
# PGWEIR_DOCKER_ROOT   data-root of our own engine, kept between runs (default /var/lib/pgweir-docker)
# ALLOW_NO_ENGINE=1    an engine that cannot start is no failure, also in CI
# WAIT_LIMIT           seconds until a wait for an event fails (default 300)
# BUILD_LIMIT          seconds until a build or an installation fails (default 1800)

ENGINE_PID='' ENGINE_DIR='' ENGINE_ROOT_OWN='' WATCHED=''
: "${WAIT_LIMIT:=300}" "${BUILD_LIMIT:=1800}"
# A test that starts others hands this on, so that all lines count from the same second.
export BEGAN=${BEGAN:-$EPOCHSECONDS}

# note prints a line of the test itself, with the seconds since the test began.
note() { printf '== %4d s  %s\n' $(( EPOCHSECONDS - BEGAN )) "$*"; }

# fail ends the test.
fail() { printf 'FAIL: %s\n' "$*" >&2; exit 1; }

# await waits for an event: what must become true, and a command that succeeds when it is. It says
# every half minute that it waits, and ends the test when WAIT_LIMIT is over.
await() {
    local what=$1 began=$SECONDS said=$SECONDS
    shift
    until "$@"; do
        (( SECONDS - began < WAIT_LIMIT )) || fail "not within $WAIT_LIMIT s: $what"
        if (( SECONDS - said >= 30 )); then
            said=$SECONDS
            note "waiting $(( SECONDS - began )) s until $what"
        fi
        sleep 0.3
    done
}

# watched runs a program with its output in a file and prints the last line of that every half
# minute. Its status is the program's, or 124 when the limit, in seconds, is over.
watched() {
    local limit=$1 log=$2 said=$SECONDS began=$SECONDS status=0
    shift 2
    timeout --kill-after=30 "$limit" "$@" > "$log" 2>&1 < /dev/null &
    WATCHED=$!
    while kill -0 "$WATCHED" 2> /dev/null; do
        if (( SECONDS - said >= 30 )); then
            said=$SECONDS
            note "$(( SECONDS - began )) s in: $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-90)"
        fi
        sleep 0.2
    done
    wait "$WATCHED" || status=$?
    WATCHED=''
    return $status
}

# build does what takes minutes: what it is, the program. The end of its output is shown if it fails.
build() {
    local what=$1 log status=0
    shift
    note "$what"
    log=$(mktemp)
    watched "$BUILD_LIMIT" "$log" "$@" || status=$?
    if (( status )); then
        tail -n 40 "$log"
        rm -f "$log"
        (( status != 124 )) || fail "$what: not done within $BUILD_LIMIT s"
        fail "$what: status $status"
    fi
    rm -f "$log"
}

# stop_watched ends a program that watched has started, for the end of a test that was broken off.
stop_watched() {
    [[ ! $WATCHED ]] || kill -TERM "$WATCHED" 2> /dev/null || true
}

# need_packages installs Debian's packages for commands that are missing: command=package …
need_packages() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" > /dev/null || missing+=("${pair#*=}")
    done
    (( ${#missing[@]} )) || return 0
    command -v apt-get > /dev/null || fail "install what Debian calls ${missing[*]}; there is no apt-get here"
    (( EUID == 0 )) || fail "installing ${missing[*]} needs root"
    # The lists may be older than what the mirror still has, or not all be there: the installation decides.
    watched "$BUILD_LIMIT" /dev/null apt-get -o DPkg::Lock::Timeout="$WAIT_LIMIT" update || true
    build "installing ${missing[*]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout="$WAIT_LIMIT" install -y --no-install-recommends "${missing[@]}"
}

# engine_answers says whether some engine is there.
engine_answers() { timeout 30 docker version > /dev/null 2>&1; }

# engine_up finds or starts an engine.
engine_up() {
    if command -v docker > /dev/null && engine_answers; then
        note "using the engine that answers${DOCKER_HOST:+ at $DOCKER_HOST}"
        return 0
    fi
    need_packages dockerd=docker.io docker=docker.io iptables=iptables
    # Where services are started as they are installed, there is one now.
    if engine_answers; then
        note "using the engine that was installed"
        return 0
    fi
    (( EUID == 0 )) || fail "no Docker engine answers, and starting one needs root"
    local root=${PGWEIR_DOCKER_ROOT:-/var/lib/pgweir-docker} end
    mkdir -p "$root"
    ENGINE_DIR=$(mktemp -d)
    # Two engines on one data-root would ruin it: a second run at the same time gets a root of its own.
    exec 8> "$root/.pgweir-lock"
    if ! flock --nonblock 8; then
        ENGINE_ROOT_OWN=$(mktemp -d -p /var/tmp pgweir-docker.XXXXXX)
        root=$ENGINE_ROOT_OWN
    fi
    note "starting dockerd on $root"
    dockerd --data-root "$root" --exec-root "$ENGINE_DIR/exec" --pidfile "$ENGINE_DIR/pid" \
        -H "unix://$ENGINE_DIR/docker.sock" > "$ENGINE_DIR/log" 2>&1 &
    ENGINE_PID=$!
    export DOCKER_HOST=unix://$ENGINE_DIR/docker.sock
    end=$(( SECONDS + WAIT_LIMIT ))
    while (( SECONDS < end )) && kill -0 "$ENGINE_PID" 2> /dev/null; do
        if engine_answers; then
            export ENGINE_IS_OURS=1
            forget_leftovers
            return 0
        fi
        sleep 0.5
    done
    printf 'SKIP: no Docker engine can start here; its last lines:\n'
    tail -n 5 "$ENGINE_DIR/log"
    engine_down
    if [[ ${CI:-} && ${ALLOW_NO_ENGINE:-} != 1 ]]; then
        exit 1
    fi
    exit 0
}

# leftovers lists the containers of all tests.
leftovers() { docker ps --all --quiet; }

# forget_leftovers removes what a test that was killed has left in our data-root; images stay.
forget_leftovers() {
    local ids
    readarray -t ids < <(leftovers)
    (( ! ${#ids[@]} )) || docker rm --force --volumes "${ids[@]}" > /dev/null
    docker volume prune --force > /dev/null
    docker network prune --force > /dev/null
}

# engine_down ends our own engine and what it left outside of its data-root.
engine_down() {
    local pid=$ENGINE_PID end
    if [[ $pid ]]; then
        ENGINE_PID=''
        kill -TERM "$pid" 2> /dev/null || true
        end=$(( SECONDS + 60 ))
        while (( SECONDS < end )) && kill -0 "$pid" 2> /dev/null; do sleep 0.2; done
        if kill -KILL "$pid" 2> /dev/null; then
            note "dockerd $pid did not end within 60 s and was killed"
        else
            note "dockerd $pid has ended"
        fi
        wait "$pid" 2> /dev/null || true
    fi
    [[ ! $ENGINE_DIR ]] || rm -rf "$ENGINE_DIR" || true
    [[ ! $ENGINE_ROOT_OWN ]] || rm -rf "$ENGINE_ROOT_OWN" || true
}

# port_free says whether nobody listens at a port.
port_free() { ! (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }

# free_port prints the port given if nothing listens there, else one that the kernel has free.
free_port() {
    local port=$1
    until port_free "$port"; do
        port=$(( 20000 + RANDOM % 12000 ))
    done
    printf '%s' "$port"
}
