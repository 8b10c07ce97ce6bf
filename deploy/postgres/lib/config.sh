# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154 # settings and findings are shared by the files of lib
#
# The files that a start writes anew, outside of the data directory: they are this node's own,
# and neither pg_rewind nor a clone may bring another node's.

# write_passfile is where the server's receiver, repmgr and we find the password of the repmgr user.
write_passfile() {
    export PGPASSFILE=$RUN/pgpass
    local secret=${REPMGR_SECRET//\\/\\\\}
    (umask 077 && printf '*:*:*:%s:%s\n' "$REPMGR_USER" "${secret//:/\\:}" > "$PGPASSFILE")
}

# conninfo prints how to reach a node as the repmgr user.
conninfo() { printf 'host=%s port=%s user=%s connect_timeout=2 passfile=%s' "$1" "$2" "$REPMGR_USER" "$PGPASSFILE"; }

# write_config writes what the server includes, who may come in, and repmgr's file.
write_config() {
    mkdir -p "$MOUNT/conf/conf.d"
    cat > "$RUN/node.conf" << EOF
listen_addresses = '*'
port = $PORT
unix_socket_directories = '$SOCKETS'
cluster_name = '$NAME'
hba_file = '$RUN/pg_hba.conf'
ident_file = '$RUN/pg_ident.conf'
password_encryption = 'scram-sha-256'
max_connections = 200
shared_preload_libraries = 'repmgr'

# replication
wal_level = replica
max_wal_senders = 16
max_replication_slots = 16
hot_standby = on
hot_standby_feedback = on
wal_keep_size = '512MB'
# pg_rewind needs it, beside checksums
wal_log_hints = on

# how long a hang of the other side is taken for life
wal_receiver_timeout = '4s'
wal_receiver_status_interval = '1s'
wal_retrieve_retry_interval = '500ms'
wal_sender_timeout = '10s'
tcp_keepalives_idle = 5
tcp_keepalives_interval = 2
tcp_keepalives_count = 3

# your own, if there are any
include_dir = '$MOUNT/conf/conf.d'
EOF
    cat > "$RUN/pg_hba.conf" << EOF
local  all          postgres,$REPMGR_USER  peer map=node
local  all          all                 scram-sha-256
host   all          all           all   scram-sha-256
host   replication  all         all   scram-sha-256
EOF
    cat > "$RUN/pg_ident.conf" << EOF
node  root      postgres
node  postgres  postgres
node  postgres  $REPMGR_USER
EOF
    cat > "$RUN/repmgr.conf" << EOF
node_id = $NODE_ID
node_name = '$NAME'
conninfo = '$(conninfo "$HOST" "$PORT") dbname=$REPMGR_DB'
data_directory = '$DATA'
pg_bindir = '$(pg_config --bindir)'
passfile = '$PGPASSFILE'
priority = $PRIORITY
log_level = $LOG_LEVEL
failover = automatic
promote_command = 'repmgr standby promote --config-file=$RUN/repmgr.conf'
follow_command = 'repmgr standby follow --config-file=$RUN/repmgr.conf --upstream-node-id=%n'
monitor_interval_secs = 1
reconnect_attempts = $ATTEMPTS
reconnect_interval = $INTERVAL
connection_check_type = ping
primary_visibility_consensus = true
primary_notification_timeout = 30
EOF
}

# include_config makes the server's own file read ours; it is the same text on every node, so that a
# clone or pg_rewind may copy it.
include_config() {
    local line="include_if_exists = '$RUN/node.conf'" file=$1/postgresql.conf
    grep -qxF "$line" "$file" 2> /dev/null || printf '%s\n' "$line" >> "$file"
}

# follow makes the data directory given a standby of the node given.
follow() {
    local dir=$1 host=$2 port=$3 auto=$1/postgresql.auto.conf
    touch "$auto" "$dir/standby.signal"
    sed -i '/^primary_conninfo *=/d; /^primary_slot_name *=/d' "$auto"
    printf "primary_conninfo = '%s application_name=%s'\n" "$(conninfo "$host" "$port")" "$NAME" >> "$auto"
}
