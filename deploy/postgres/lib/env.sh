# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154 # settings and findings are shared by the files of lib
#
# What the environment says. The names are those that people know from the repmgr images.

readonly KNOWN_NAMES=(
    REPMGR_PRIMARY_HOST REPMGR_PRIMARY_PORT REPMGR_PARTNER_NODES
    REPMGR_NODE_NAME REPMGR_NODE_NETWORK_NAME REPMGR_NODE_ID REPMGR_NODE_PRIORITY REPMGR_PORT_NUMBER
    REPMGR_USERNAME REPMGR_PASSWORD REPMGR_PASSWORD_FILE REPMGR_DATABASE
    REPMGR_RECONNECT_ATTEMPTS REPMGR_RECONNECT_INTERVAL REPMGR_LOG_LEVEL
    POSTGRESQL_POSTGRES_PASSWORD POSTGRESQL_POSTGRES_PASSWORD_FILE
    POSTGRESQL_USERNAME POSTGRESQL_PASSWORD POSTGRESQL_PASSWORD_FILE POSTGRESQL_DATABASE
)

# read_settings fills NAME, HOST, PORT, NODE_ID, PRIMARY_HOST, PRIMARY_PORT, PEERS (host port, one a
# line, without ourselves) and the users and passwords; it ends the container with all that is wrong.
read_settings() {
    local problems=()
    HOST=${REPMGR_NODE_NETWORK_NAME:-${HOSTNAME:-$(uname -n)}}
    NAME=${REPMGR_NODE_NAME:-$HOST}
    PORT=${REPMGR_PORT_NUMBER:-5432}
    PRIMARY_HOST=${REPMGR_PRIMARY_HOST:-}
    PRIMARY_PORT=${REPMGR_PRIMARY_PORT:-5432}
    REPMGR_USER=${REPMGR_USERNAME:-repmgr}
    REPMGR_DB=${REPMGR_DATABASE:-repmgr}
    PRIORITY=${REPMGR_NODE_PRIORITY:-100}
    ATTEMPTS=${REPMGR_RECONNECT_ATTEMPTS:-3}
    INTERVAL=${REPMGR_RECONNECT_INTERVAL:-1}
    LOG_LEVEL=${REPMGR_LOG_LEVEL:-NOTICE}
    APP_USER=${POSTGRESQL_USERNAME:-myuser}
    APP_DB=${POSTGRESQL_DATABASE:-mydb}
    REPMGR_SECRET=$(secret REPMGR_PASSWORD)
    ADMIN_SECRET=$(secret POSTGRESQL_POSTGRES_PASSWORD)
    APP_SECRET=$(secret POSTGRESQL_PASSWORD)

    [[ $PRIMARY_HOST ]] || problems+=("REPMGR_PRIMARY_HOST is not set: name the node that is the first primary")
    [[ $REPMGR_SECRET ]] || problems+=("REPMGR_PASSWORD is not set: every node needs the same one")
    local name
    for name in PORT PRIMARY_PORT PRIORITY ATTEMPTS INTERVAL; do
        [[ ${!name} =~ ^[0-9]+$ ]] || problems+=("${name,,}: \"${!name}\" is not a number")
    done
    # repmgr.conf and primary_conninfo hold these words between blanks and quotes.
    for name in HOST NAME PRIMARY_HOST REPMGR_USER REPMGR_DB LOG_LEVEL; do
        [[ ! ${!name} || ${!name} =~ ^[A-Za-z0-9._:-]+$ ]] || problems+=("${name,,}: \"${!name}\" holds a character other than letters, digits and . _ : -")
    done
    NODE_ID=${REPMGR_NODE_ID:-$(node_id_of "$NAME")}
    [[ $NODE_ID =~ ^[1-9][0-9]*$ ]] || problems+=("REPMGR_NODE_ID: \"$NODE_ID\" is not a number above 0")
    PEERS=$(peers_of "${REPMGR_PARTNER_NODES:-}") || problems+=("REPMGR_PARTNER_NODES: \"${REPMGR_PARTNER_NODES:-}\" is not a list like pg-0,pg-1:5433")

    if (( ${#problems[@]} )); then
        local problem
        for problem in "${problems[@]}"; do say "fatal: $problem"; done
        exit 1
    fi
    if [[ ! $APP_SECRET ]]; then
        APP_SECRET=mypassword
        warn "POSTGRESQL_PASSWORD is not set: user \"$APP_USER\" gets the password of the example"
    fi
}

# secret prints the value of a name, or what the file that NAME_FILE names holds.
secret() {
    local file=${1}_FILE
    if [[ ${!file:-} ]]; then
        cat -- "${!file}"
    else
        printf '%s' "${!1:-}"
    fi
}

# node_id_of makes repmgr's number from a name: 1000 and the digits at its end, or a checksum without any.
node_id_of() {
    if [[ $1 =~ ([0-9]{1,5})$ ]]; then
        printf '%d' "$(( 1000 + 10#${BASH_REMATCH[1]} ))"
    else
        printf '%d' "$(( 200000 + $(printf '%s' "$1" | cksum | cut -d' ' -f1) % 1000000 ))"
    fi
}

# peers_of prints "host port" a line for a list of host or host:port, without ourselves and without doubles.
peers_of() {
    local word host port words
    read -r -d '' -a words <<< "${1//[,;]/ }" || true
    words+=("$PRIMARY_HOST:$PRIMARY_PORT")
    for word in "${words[@]}"; do
        [[ $word == : || $word == ":$PRIMARY_PORT" ]] && continue
        [[ $word =~ ^([A-Za-z0-9._-]+)(:([0-9]+))?$ ]] || return 1
        host=${BASH_REMATCH[1]} port=${BASH_REMATCH[3]:-5432}
        [[ $host == "$HOST" && $port == "$PORT" ]] && continue
        printf '%s %s\n' "$host" "$port"
    done | sort -u
}

# warn_unknown_names names every variable of ours that nothing reads, with the likely meant one.
warn_unknown_names() {
    local name known
    while read -r name; do
        known=
        for known in "${KNOWN_NAMES[@]}"; do [[ $known == "$name" ]] && continue 2; done
        known=$(nearest "$name")
        warn "$name is not a name this image knows; nothing reads it${known:+ (did you mean $known?)}"
    done < <(compgen -e | grep -E '^(REPMGR|POSTGRES|POSTGRESQL)_' | sort)
}

# nearest prints the known name that is fewest edits away, if it is near enough to be meant.
nearest() {
    printf '%s\n' "${KNOWN_NAMES[@]}" | awk -v want="$1" '
        function min(a, b) { return a < b ? a : b }
        function distance(a, b,    i, j, above, left, now) {
            for (j = 0; j <= length(b); j++) row[j] = j
            for (i = 1; i <= length(a); i++) {
                left = i; above = i - 1
                for (j = 1; j <= length(b); j++) {
                    now = min(min(row[j] + 1, left + 1), above + (substr(a, i, 1) != substr(b, j, 1)))
                    above = row[j]; row[j - 1] = left; left = now
                }
                row[length(b)] = left
            }
            return row[length(b)]
        }
        { d = distance(want, $0); if (best == "" || d < least) { best = $0; least = d } }
        END { if (least <= 4) print best }'
}
