# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154 # settings and findings are shared by the files of lib
#
# Words to the log, and steps that a stop can interrupt.

STOPPING=       # set once somebody asked us to stop
STEP=           # pid of the step that runs in the foreground, if any

# say prints one line with the node's name in front.
say() { printf '%s node %s: %s\n' "$(date -u +%H:%M:%S)" "${NAME:-?}" "$*" >&2; }

# say_once prints a line only if it differs from the last one said through it: for loops that wait.
LAST_SAID=
say_once() {
    [[ $* == "$LAST_SAID" ]] && return 0
    LAST_SAID=$*
    say "$@"
}

# warn and die print a line marked as such; die ends the container.
warn() { say "warning: $*"; }
die() { say "fatal: $*"; stop_children; exit 1; }

# step runs a command in the background and waits for it, so that a stop is not kept waiting by it.
step() {
    "$@" &
    STEP=$!
    local status=0
    wait "$STEP" || status=$?
    if [[ $STOPPING ]]; then
        finish_stop
    fi
    STEP=
    return "$status"
}

# pause sleeps, and ends early at a stop.
pause() { step sleep "$1"; }

# on_stop is the trap of TERM and INT: the running step is told, whoever waits for it finishes the stop.
on_stop() {
    STOPPING=1
    if [[ $STEP ]]; then
        kill -TERM "$STEP" 2> /dev/null
    fi
}

# finish_stop ends everything and the container; a stop that was asked for is a success.
finish_stop() {
    say "stopping"
    stop_children
    exit 0
}
