# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154 # settings and findings are shared by the files of lib
#
# What to be, and being it.

readonly GRACE=5     # seconds that a former primary looks for peers that do not answer before it starts writable

SERVER='' REPMGRD='' WATCH=''   # pids of the children

# decide looks at the peers until it is clear what this node has to do, and sets PLAN.
decide() {
    local rounds=0 since=$SECONDS host port timeline system own
    while true; do
        look_around
        rounds=$(( rounds + 1 ))
        read -r host port timeline system <<< "$SEEN_PRIMARY"
        PLAN=''
        if have_data; then
            foreign_system
            own=$(own_timeline)
            if standby_data; then
                plan_standby
            else
                plan_primary
            fi
        else
            plan_empty
        fi
        [[ $PLAN ]] && return 0
        pause 1
    done
}

# foreign_system refuses to go on beside a peer of another cluster: one of the two volumes is wrong,
# and nobody but a person knows which.
foreign_system() {
    local other own
    own=$(control 'Database system identifier')
    while read -r other; do
        [[ ! $other || $other == "$own" ]] || die "a peer belongs to another cluster (system identifier $other, ours is $own); move $DATA away to join it"
    done <<< "$SEEN_SYSTEMS"
}

# plan_empty: no data here.
plan_empty() {
    if [[ $host ]]; then
        PLAN=clone
    elif [[ $PRIMARY_HOST == "$HOST" && $PRIMARY_PORT == "$PORT" ]] && (( SEEN == 0 )); then
        if (( rounds >= 2 )); then PLAN=initialise; fi
    else
        say_once "no data, and no peer is primary yet: waiting for one to clone from"
    fi
}

# plan_standby: the data of a standby. It never becomes writable here; repmgrd promotes.
plan_standby() {
    local status=0
    if [[ ! $host ]]; then
        say "no peer is primary; starting as the standby that we were, on timeline $own"
        PLAN=start
    elif (( timeline < own )); then
        say_once "$host:$port is primary on timeline $timeline, we were a standby on $own: waiting for the primary of our line"
    else
        can_follow "$host" "$port" "$timeline" || status=$?
        case $status in
            0) follow "$DATA" "$host" "$port"; PLAN=start
               say "starting as a standby of $host:$port (timeline $timeline)" ;;
            1) say "our data left the line of $host:$port (timeline $timeline, ours is $own at $(own_position)), or its WAL is gone there"
               PLAN=clone ;;
            *) say_once "$host:$port did not answer; looking again" ;;
        esac
    fi
}

# plan_primary: the data of a primary.
plan_primary() {
    if [[ $host ]] && (( timeline >= own )); then
        say "refusing to start writable: $host:$port is primary on timeline $timeline, ours is $own"
        PLAN=rejoin
    elif (( SEEN_STANDBY > own )); then
        say_once "refusing to start writable: a peer is a standby on timeline $SEEN_STANDBY, ours is $own; waiting for its primary"
    elif (( UNSEEN > 0 && SEEN == 0 && SECONDS - since < GRACE )); then
        say_once "no peer answers yet; looking for $GRACE s before starting as primary"
    else
        say "starting as primary on timeline $own"
        PLAN=start
    fi
}

# run_node starts the server, registers it, runs repmgrd and the watch, and stays until one of them
# ends. It returns when the peers have to be looked at again; if the server ended, the container does.
run_node() {
    local status ended
    include_config "$DATA"
    postgres -D "$DATA" &
    SERVER=$!
    until pg_isready --quiet --host="$SOCKETS" --port="$PORT"; do
        pause 0.3
        kill -0 "$SERVER" 2> /dev/null || server_ended
    done
    register
    touch "$RUN/ready"
    watch_peers &
    WATCH=$!
    while true; do
        if [[ ! $REPMGRD ]]; then
            repmgrd --config-file="$RUN/repmgr.conf" --daemonize=false --no-pid-file &
            REPMGRD=$!
        fi
        status=0
        wait -n -p ended "$SERVER" "$REPMGRD" "$WATCH" || status=$?
        if [[ $STOPPING ]]; then
            finish_stop
        fi
        case $ended in
            "$SERVER")  server_ended ;;
            "$REPMGRD") say "repmgrd ended (status $status); starting it again"; REPMGRD=''; pause 2 ;;
            "$WATCH")   WATCH=''; rm -f "$RUN/ready"; stop_children; return 0 ;;
        esac
    done
}

# server_ended ends the container with the server's own status; 1 if that was a success nobody asked for.
server_ended() {
    local status=0
    wait "$SERVER" || status=$?
    SERVER=''
    say "the server ended by itself (status $status)"
    stop_children
    exit $(( status == 0 ? 1 : status ))
}

# register writes this node into repmgr's table, which lives on the primary. A standby that was
# registered before needs no primary for it.
register() {
    local tries
    for (( tries = 1; ; tries++ )); do
        if [[ $(local_psql -d postgres -c 'SELECT pg_is_in_recovery()') == f ]]; then
            step register_primary && return 0
        else
            step repmgr standby register --config-file="$RUN/repmgr.conf" --force > "$RUN/register.log" 2>&1 && return 0
            if (( tries >= 5 )) && [[ $(local_psql -d "$REPMGR_DB" -c "SELECT count(*) FROM repmgr.nodes WHERE node_id = $NODE_ID") == 1 ]]; then
                say "no primary to register with; going on with the registration from before"
                return 0
            fi
        fi
        (( tries % 10 == 5 )) && { say "not registered yet:"; cat "$RUN/register.log" >&2; }
        kill -0 "$SERVER" 2> /dev/null || server_ended
        pause 1
    done
}

# register_primary registers a primary. Whoever was registered as one before is none any more:
# the peers have been looked at.
register_primary() {
    local_psql -d "$REPMGR_DB" -c "
        UPDATE repmgr.nodes SET active = false
        WHERE node_id <> $NODE_ID AND type = 'primary' AND active" > "$RUN/register.log" 2>&1 &&
        repmgr primary register --config-file="$RUN/repmgr.conf" --force >> "$RUN/register.log" 2>&1
}

# stop_children ends the watch, repmgrd and the server, in this order, and waits for them. A server
# that does not end within its time is ended at once.
stop_children() {
    local pid
    for pid in $WATCH $REPMGRD; do
        kill -TERM "$pid" 2> /dev/null
        wait "$pid" 2> /dev/null
    done
    if [[ $SERVER ]]; then
        kill -INT "$SERVER" 2> /dev/null
        # shellcheck disable=SC2016 # expanded by the inner shell
        timeout 8 bash -c 'while kill -0 "$1" 2> /dev/null; do sleep 0.1; done' - "$SERVER" || kill -QUIT "$SERVER"
        wait "$SERVER" 2> /dev/null
    fi
    WATCH='' REPMGRD='' SERVER=''
}
