# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154 # settings and findings are shared by the files of lib
#
# What the other nodes say they are. Nothing here changes anything.

# One row of a peer: its role, its system identifier, its timeline. A standby that receives nothing
# shows the timeline of its last checkpoint.
readonly ASK_PEER="
SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END,
       (SELECT system_identifier FROM pg_control_system()),
       CASE WHEN pg_is_in_recovery()
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint()))
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
       END"

# peer_sql asks one peer, as the repmgr user; prints rows with blanks between the columns.
peer_sql() {
    local host=$1 port=$2 sql=$3
    PGCONNECT_TIMEOUT=2 timeout 5 psql -XAtq -F ' ' \
        "host=$host port=$port user=$REPMGR_USER dbname=$REPMGR_DB" -c "$sql"
}

# look_around asks all peers at once. It sets
#   SEEN_PRIMARY   "host port timeline system_identifier" of the primary on the highest timeline, or ""
#   SEEN_STANDBY   the highest timeline of a standby, 0 without one
#   SEEN_SYSTEMS   the system identifiers seen, one a line
#   SEEN, UNSEEN   how many peers answered, and how many did not
look_around() {
    local dir host port role system timeline
    dir=$(mktemp -d "$RUN/look.XXXXXX")
    step ask_all "$dir"
    SEEN_PRIMARY='' SEEN_STANDBY=0 SEEN_SYSTEMS='' SEEN=0 UNSEEN=0
    local best=0
    while read -r host port; do
        [[ $host ]] || continue
        if ! read -r role system timeline < "$dir/$host.$port" 2> /dev/null; then
            UNSEEN=$(( UNSEEN + 1 ))
            if grep -q 'authentication failed' "$dir/$host.$port.err" 2> /dev/null; then
                say_once "$host refuses the user $REPMGR_USER: REPMGR_PASSWORD must be the same on every node"
            fi
            continue
        fi
        SEEN=$(( SEEN + 1 )) SEEN_SYSTEMS+="$system"$'\n'
        if [[ $role == primary ]] && (( timeline > best )); then
            best=$timeline SEEN_PRIMARY="$host $port $timeline $system"
        elif [[ $role == standby ]] && (( timeline > SEEN_STANDBY )); then
            SEEN_STANDBY=$timeline
        fi
    done <<< "$PEERS"
    rm -rf "$dir"
}

# ask_all leaves one file a peer in the directory given, empty where it did not answer.
ask_all() {
    local host port
    while read -r host port; do
        [[ $host ]] || continue
        peer_sql "$host" "$port" "$ASK_PEER" > "$1/$host.$port" 2> "$1/$host.$port.err" &
    done <<< "$PEERS"
    wait
}
