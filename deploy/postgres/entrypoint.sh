#!/bin/bash
# shellcheck source-path=SCRIPTDIR
# shellcheck disable=SC2034 # the constants are for the files of lib
#
# The life of one node: read the settings, take the data directory for ourselves, look at the peers,
# become what they leave us to be, run until something ends, look again.
#
#        no data                          data of a standby            data of a primary
#   ─────────────────────            ─────────────────────────      ─────────────────────────────
#   a peer is primary: clone         a peer is primary: follow      a peer is primary on our timeline
#   nobody, and we are               it, or clone anew if our       or a higher one: rejoin (pg_rewind,
#   REPMGR_PRIMARY_HOST:             data left its line             else a fresh clone)
#   initialise                       nobody: start as standby       a standby is on a higher timeline:
#   else: wait                                                      wait for its primary
#                                                                   else: start as primary
#
# While it runs, repmgrd promotes and follows; watch.sh ends a primary that was overtaken.
# Exit status: 0 after a stop that was asked for, else not 0, and the restart policy decides.
set -u -o pipefail

readonly MOUNT=/bitnami/postgresql
readonly DATA=$MOUNT/data
readonly RUN=/run/pgnode
readonly SOCKETS=/var/run/postgresql
readonly INITSCRIPTS=/docker-entrypoint-initdb.d
readonly LIB=/usr/local/lib/pgnode

# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/env.sh
. "$LIB/env.sh"
# shellcheck source=lib/peers.sh
. "$LIB/peers.sh"
# shellcheck source=lib/config.sh
. "$LIB/config.sh"
# shellcheck source=lib/data.sh
. "$LIB/data.sh"
# shellcheck source=lib/watch.sh
. "$LIB/watch.sh"
# shellcheck source=lib/node.sh
. "$LIB/node.sh"

# Another command than the server (docker run … image psql …) runs as it is.
if (( $# > 0 )); then
    exec "$@"
fi

# Root only sees to it that the mount belongs to postgres; everything else runs as postgres.
if (( EUID == 0 )); then
    mkdir -p "$MOUNT" "$RUN" "$SOCKETS"
    chown postgres:postgres "$MOUNT" "$RUN" "$SOCKETS"
    if [[ -e $DATA && $(stat -c %U "$DATA") != postgres ]]; then
        chown -R postgres:postgres "$DATA"
    fi
    exec setpriv --reuid=postgres --regid=postgres --init-groups --no-new-privs \
        env HOME="$RUN" "$BASH" "$0"
fi

rm -f "$RUN/ready"
read_settings
warn_unknown_names
write_passfile
write_config
printf '%s\n' "$PORT" > "$RUN/port"

trap on_stop TERM INT
lock_data

while true; do
    decide            # sets PLAN
    case $PLAN in
        initialise) initialise ;;
        clone)      clone ;;
        rejoin)     rejoin ;;
        start)      ;;
    esac || die "the step \"$PLAN\" did not work; see the lines above"
    run_node          # returns when the peers must be looked at again, exits otherwise
done
