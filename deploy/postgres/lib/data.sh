# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154 # settings and findings are shared by the files of lib
#
# The data directory: whose it is, what it says, and how it comes to be.

# lock_data takes the volume for this container. On a volume that several nodes share, one runs at a
# time: the others wait here and take over when it ends. Every child holds the lock too, so that it
# is free only when the last process of the server is gone.
lock_data() {
    exec 9> "$MOUNT/.lock" || die "cannot write to $MOUNT"
    while ! flock --nonblock 9; do
        say_once "the volume is in use by another node; one node runs at a time on a shared volume: waiting"
        pause 1
    done
    # A server that died with its container left its pid, in the data and beside its socket; the number may be anybody's now.
    rm -f "$DATA/postmaster.pid" "$SOCKETS"/.s.PGSQL.*
    rm -rf "$MOUNT/data.new"
}

have_data() { [[ -s $DATA/PG_VERSION && -s $DATA/global/pg_control ]]; }
standby_data() { [[ -e $DATA/standby.signal ]]; }

# control prints one value of pg_controldata.
control() { LC_ALL=C pg_controldata "$DATA" | sed -n "s/^$1: *//p"; }

# own_timeline prints the timeline that our data has reached. A primary that died soon after its
# promotion has the old one in its control file and the new one in a history file.
own_timeline() {
    local best file number
    best=$(control "Latest checkpoint's TimeLineID")
    number=$(control "Min recovery ending loc's timeline")
    (( ${number:-0} > best )) && best=$number
    if ! standby_data; then
        for file in "$DATA"/pg_wal/*.history; do
            [[ -e $file ]] || continue
            number=$(( 16#$(basename "$file" .history) ))
            (( number > best )) && best=$number
        done
    fi
    printf '%s' "$best"
}

# own_position prints how far a standby's data has come.
own_position() {
    local position
    position=$(control 'Minimum recovery ending location')
    [[ $position && $position != 0/0 ]] || position=$(control 'Latest checkpoint location')
    printf '%s' "$position"
}

# can_follow asks the primary whether a standby with our data can follow it: our timeline is in its
# history, forked off no earlier than our position, and the WAL from our last checkpoint is still there.
can_follow() {
    local host=$1 port=$2 timeline=$3 mine position redo answer
    mine=$(own_timeline) position=$(own_position) redo=$(control "Latest checkpoint's REDO WAL file")
    answer=$(peer_sql "$host" "$port" "
        WITH line AS (
            SELECT m[1]::int AS timeline, m[2]::pg_lsn AS fork
            FROM regexp_matches(
                CASE WHEN $timeline > 1
                     THEN pg_read_file('pg_wal/' || lpad(upper(to_hex($timeline)), 8, '0') || '.history')
                     ELSE '' END,
                '^(\d+)\t([0-9A-F]+/[0-9A-F]+)', 'gn') AS m)
        SELECT ($mine = $timeline OR EXISTS (SELECT FROM line WHERE timeline = $mine AND fork >= '$position'))
           AND EXISTS (SELECT FROM pg_ls_waldir() WHERE substr(name, 9) = '${redo:8}')") || return 2
    [[ $answer == t ]]
}

# initialise makes the first primary: the users and the database, then the scripts of
# /docker-entrypoint-initdb.d (*.sh and *.sql, by name). It appears under its name only when whole.
initialise() {
    local new=$MOUNT/data.new status=0
    say "initialising a new cluster"
    step initdb --pgdata="$new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 --data-checksums \
        --auth-local=peer --auth-host=scram-sha-256 > "$RUN/initdb.log" 2>&1 || { cat "$RUN/initdb.log" >&2; return 1; }
    include_config "$new"
    step pg_ctl start --pgdata="$new" --silent --wait --log="$RUN/initdb.log" --options="-c listen_addresses=''" ||
        { cat "$RUN/initdb.log" >&2; return 1; }
    step create_users && step run_initscripts || status=1
    step pg_ctl stop --pgdata="$new" --silent --wait --mode=fast || status=1
    (( status == 0 )) || { cat "$RUN/initdb.log" >&2; return 1; }
    sync -f "$new"
    mv "$new" "$DATA"
    say "starting as primary on timeline 1"
}

# local_psql runs psql over the local socket as the superuser, stopping at the first error.
local_psql() { psql -XAtq -v ON_ERROR_STOP=1 --host="$SOCKETS" --port="$PORT" --username=postgres "$@"; }

# create_users makes the users of the settings and the two databases. The secrets travel in the
# environment, where no other user of the machine can read them.
create_users() {
    export REPMGR_SECRET ADMIN_SECRET APP_SECRET
    local_psql --dbname=postgres -v repmgr="$REPMGR_USER" -v repmgr_db="$REPMGR_DB" \
        -v app="$APP_USER" -v app_db="$APP_DB" << 'EOF'
\getenv repmgr_secret REPMGR_SECRET
\getenv admin_secret ADMIN_SECRET
\getenv app_secret APP_SECRET
CREATE ROLE :"repmgr" LOGIN SUPERUSER REPLICATION PASSWORD :'repmgr_secret';
CREATE DATABASE :"repmgr_db" OWNER :"repmgr";
SELECT :'admin_secret' <> '' AS has_admin_secret, :'app' = 'postgres' AS app_is_admin,
       NOT EXISTS (SELECT FROM pg_database WHERE datname = :'app_db') AS app_db_missing \gset
\if :has_admin_secret
ALTER ROLE postgres PASSWORD :'admin_secret';
\endif
\if :app_is_admin
ALTER ROLE postgres PASSWORD :'app_secret';
\else
CREATE ROLE :"app" LOGIN PASSWORD :'app_secret';
\endif
\if :app_db_missing
CREATE DATABASE :"app_db" OWNER :"app";
\endif
\connect :"repmgr_db"
CREATE EXTENSION repmgr;
EOF
}

# run_initscripts runs what the user put there, connected to the new database as the superuser.
run_initscripts() {
    local file
    export PGHOST=$SOCKETS PGPORT=$PORT PGUSER=postgres PGDATABASE=$APP_DB
    for file in "$INITSCRIPTS"/*; do
        case $file in
            *.sh)  say "running $file"; bash "$file" || return 1 ;;
            *.sql) say "running $file"; local_psql --dbname="$APP_DB" --file="$file" || return 1 ;;
        esac
    done
}

# clone makes a standby of SEEN_PRIMARY. Data that was there stays as data.old until the next clone.
clone() {
    local host port new=$MOUNT/data.new
    read -r host port _ <<< "$SEEN_PRIMARY"
    say "cloning from $host:$port"
    rm -rf "$new"
    step pg_basebackup --pgdata="$new" --wal-method=stream --checkpoint=fast --no-password \
        --dbname="$(conninfo "$host" "$port") application_name=$NAME" || return 1
    include_config "$new"
    follow "$new" "$host" "$port"
    if [[ -e $DATA ]]; then
        say "the former data stays in $MOUNT/data.old until the next clone"
        rm -rf "$MOUNT/data.old"
        mv "$DATA" "$MOUNT/data.old"
    fi
    mv "$new" "$DATA"
    say "starting as a standby of $host:$port"
}

# rejoin makes a former primary a standby of SEEN_PRIMARY: pg_rewind, or a fresh clone where that
# cannot work. On the same timeline there is nothing that pg_rewind could tell apart.
rejoin() {
    local host port timeline
    read -r host port timeline _ <<< "$SEEN_PRIMARY"
    include_config "$DATA"
    if (( timeline == $(own_timeline) )); then
        say "$host:$port is primary on our own timeline $timeline: only a fresh clone can follow it"
        clone
        return
    fi
    say "rejoining as a standby of $host:$port (timeline $timeline, ours is $(own_timeline))"
    # Without this the new primary's control file may still show the old timeline.
    peer_sql "$host" "$port" CHECKPOINT || say "no checkpoint on $host:$port; going on"
    if step pg_rewind --target-pgdata="$DATA" --source-server="$(conninfo "$host" "$port") dbname=$REPMGR_DB"; then
        include_config "$DATA"
        follow "$DATA" "$host" "$port"
    else
        say "pg_rewind cannot bring this data to the new line"
        clone
    fi
}
