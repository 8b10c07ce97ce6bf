# shellcheck shell=bash
# A Docker engine for tests: the one that answers, or one of our own. Sourced.
#
#   engine_up     sets DOCKER_HOST where the engine is ours; ends the script where there is none
#   engine_down   ends what engine_up started, by its pid
#
# PGWEIR_DOCKER_ROOT   data-root of our own engine, kept between runs (default /var/lib/pgweir-docker)
# ALLOW_NO_ENGINE=1    an engine that cannot start is no failure, also in CI

ENGINE_PID='' ENGINE_DIR='' ENGINE_ROOT_OWN=''

# note prints a line of the test itself.
note() { printf '== %s\n' "$*"; }

# fail ends the test.
fail() { printf 'FAIL: %s\n' "$*" >&2; exit 1; }

# need_packages installs Debian's packages for commands that are missing: command=package …
need_packages() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" > /dev/null || missing+=("${pair#*=}")
    done
    (( ${#missing[@]} )) || return 0
    note "installing ${missing[*]}"
    apt-get update -qq > /dev/null 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

# engine_answers says whether some engine is there.
engine_answers() { docker version > /dev/null 2>&1; }

# engine_up finds or starts an engine.
engine_up() {
    if command -v docker > /dev/null && engine_answers; then
        note "using the engine that answers${DOCKER_HOST:+ at $DOCKER_HOST}"
        return 0
    fi
    need_packages dockerd=docker.io docker=docker.io iptables=iptables
    local root=${PGWEIR_DOCKER_ROOT:-/var/lib/pgweir-docker}
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
    local tries
    for (( tries = 0; tries < 120; tries++ )); do
        engine_answers && return 0
        kill -0 "$ENGINE_PID" 2> /dev/null || break
        sleep 0.5
    done
    printf 'SKIP: no Docker engine can start here; its last line: %s\n' "$(tail -n 1 "$ENGINE_DIR/log")"
    engine_down
    if [[ ${CI:-} && ${ALLOW_NO_ENGINE:-} != 1 ]]; then
        exit 1
    fi
    exit 0
}

# engine_down ends our own engine and what it left outside of its data-root.
engine_down() {
    if [[ $ENGINE_PID ]]; then
        kill -TERM "$ENGINE_PID" 2> /dev/null || true
        wait "$ENGINE_PID" 2> /dev/null || true
        ENGINE_PID=
    fi
    [[ $ENGINE_DIR ]] && rm -rf "$ENGINE_DIR"
    [[ $ENGINE_ROOT_OWN ]] && rm -rf "$ENGINE_ROOT_OWN"
    return 0
}

# wait_until runs a command again and again until it succeeds or the seconds given are over.
wait_until() {
    local seconds=$1 end
    shift
    end=$(( SECONDS + seconds ))
    until "$@"; do
        (( SECONDS < end )) || return 1
        sleep 0.3
    done
}

# free_port prints the port given if nothing listens there, else one that the kernel has free.
free_port() {
    local port=$1
    while (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do
        port=$(( 20000 + RANDOM % 12000 ))
    done
    printf '%s' "$port"
}
