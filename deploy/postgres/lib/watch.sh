# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154 # settings and findings are shared by the files of lib
#
# What repmgrd leaves undone: it promotes and follows, but it does not end a primary that came back
# before it heard of the new one, and it does not help a standby that lost its line.

readonly WATCH_EVERY=2    # seconds between two looks
readonly WATCH_LOST=15    # looks without receiving before a standby starts over

# watch_peers runs as a child of its own; it ends when this node has to look again at what it is.
watch_peers() {
    trap 'exit 0' TERM INT
    STEP='' STOPPING=''
    local lost=0 role own host timeline
    while true; do
        sleep "$WATCH_EVERY" & wait $!
        read -r role own < <(local_psql -d postgres -F ' ' -c "
            SELECT CASE WHEN pg_is_in_recovery() THEN
                        CASE WHEN EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')
                             THEN 'receiving' ELSE 'lost' END
                   ELSE 'primary' END,
                   CASE WHEN NOT pg_is_in_recovery()
                        THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
                        ELSE 0 END" 2> /dev/null) || continue
        case $role in
            receiving) lost=0; continue ;;
            lost)      lost=$(( lost + 1 )); (( lost % WATCH_LOST == 0 )) || continue ;;
            primary)   ;;
            *)         continue ;;
        esac
        look_around
        read -r host _ timeline _ <<< "$SEEN_PRIMARY"
        [[ $host ]] || continue
        if [[ $role == lost ]]; then
            say "no WAL received for $(( lost * WATCH_EVERY )) s while $host is primary on timeline $timeline: starting over"
            return 0
        elif (( timeline > own )); then
            say "overtaken: $host is primary on timeline $timeline, ours is $own: stepping down"
            return 0
        fi
    done
}
