#!/usr/bin/env bash
# Sees that this machine has what a make target needs, and installs from the distribution what
# is missing:
#
#   need.sh go                  Go as new as go.mod asks for; nothing is installed
#   need.sh postgres            PostgreSQL's server and client programs
#   need.sh test                what the tests use: PostgreSQL, drivers of other languages, promtool, shellcheck
#   need.sh bench               what the benchmarks compare with: PgBouncer, Pgpool-II, HAProxy
#   need.sh oracle              a C compiler, for PostgreSQL's own grammar
#   need.sh conformance         what PostgreSQL's own suites need: a C compiler, Debian's tools for source packages
#   need.sh orm                 what `make orm` uses: PostgreSQL, ORMs of Python and Ruby, npm
#   need.sh matrix              npm, for servers of other major versions
#
# Debian and Ubuntu only, as root or by sudo; elsewhere the missing programs are named. Nothing
# that is installed is started, and Debian's own cluster "main" is not made.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf '%s\n' "$*" >&2; exit 1; }

# need_go ends with one line when Go is missing or too old. Old releases do not understand go.mod
# well enough to say so themselves.
need_go() {
    local want have
    want=$(sed -n 's/^go \([0-9.]*\)$/\1/p' go.mod)
    command -v go > /dev/null || die "Go $want is needed, and there is none here: see https://go.dev/doc/install"
    have=$(GOTOOLCHAIN=local go env GOVERSION 2> /dev/null || true)
    [ -n "$have" ] || have=$(go version | awk '{print $3}')
    have=${have#go}
    have=${have%%[!0-9.]*}
    if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
        die "Go $want is needed (go.mod), this is Go $have: see https://go.dev/doc/install"
    fi
}

# as_root runs a command as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# has_postgres says whether server programs are here, wherever the tests look for them.
has_postgres() {
    [ -x "${PGWEIR_PG_BINS:-/nowhere}/postgres" ] && return 0
    compgen -G '/usr/lib/postgresql/*/bin/postgres' > /dev/null && return 0
    compgen -G '/usr/pgsql-*/bin/postgres' > /dev/null
}

# install puts Debian's packages on the machine: nothing is started, no cluster is made. What
# sees to that is taken away again, whatever happens.
install() (
    policy=/usr/sbin/policy-rc.d cluster=/etc/postgresql-common/createcluster.d/pgweir.conf own=()
    echo "installing from the distribution: $*"
    if [ "$(id -u)" != 0 ] && ! command -v sudo > /dev/null; then
        die "Only root may install, and there is no sudo: apt-get install $*"
    fi
    trap 'if [ "${#own[@]}" -gt 0 ]; then as_root rm -f "${own[@]}"; fi' EXIT
    if [ ! -e "$policy" ]; then
        own+=("$policy")
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" > /dev/null
        as_root chmod 755 "$policy"
    fi
    if [ ! -e "$cluster" ]; then
        own+=("$cluster")
        as_root mkdir -p "${cluster%/*}"
        echo 'create_main_cluster = false' | as_root tee "$cluster" > /dev/null
    fi
    as_root apt-get update -qq || echo 'apt-get update did not work; trying with the lists that are here' >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" > /dev/null
)

# ensure installs the packages that are missing: program=package …, where a program that starts
# with / is a file.
ensure() {
    local pair program missing=()
    for pair in "$@"; do
        program=${pair%%=*}
        case $program in
            postgres) has_postgres && continue ;;
            /*) [ -e "$program" ] && continue ;;
            *) command -v "$program" > /dev/null && continue ;;
        esac
        missing+=("${pair#*=}")
    done
    if [ "${#missing[@]}" = 0 ]; then return 0; fi
    command -v apt-get > /dev/null || die "Missing here, and only Debian's and Ubuntu's packages are installed by this script: ${missing[*]}"
    install "${missing[@]}"
}

postgres=(postgres=postgresql psql=postgresql-client)
for group in "$@"; do
    case $group in
        go) need_go ;;
        postgres) ensure "${postgres[@]}" ;;
        test)
            ensure "${postgres[@]}" gcc=gcc /usr/include/stdlib.h=libc6-dev node=nodejs npm=npm \
                /usr/lib/python3/dist-packages/psycopg=python3-psycopg java=default-jre-headless \
                javac=default-jdk-headless /usr/share/java/postgresql.jar=libpostgresql-jdbc-java \
                ruby=ruby /usr/share/doc/ruby-pg=ruby-pg promtool=prometheus shellcheck=shellcheck openssl=openssl \
                prometheus-pgbouncer-exporter=prometheus-pgbouncer-exporter \
                /usr/lib/python3/dist-packages/asyncpg=python3-asyncpg php=php-cli /usr/share/doc/php-pgsql=php-pgsql \
                perl=perl /usr/share/doc/libdbd-pg-perl=libdbd-pg-perl
            ;;
        bench) ensure "${postgres[@]}" pgbouncer=pgbouncer pgpool=pgpool2 haproxy=haproxy ;;
        oracle) ensure gcc=gcc /usr/include/stdlib.h=libc6-dev ;;
        conformance) ensure "${postgres[@]}" gcc=gcc /usr/include/stdlib.h=libc6-dev dpkg-source=dpkg-dev bzip2=bzip2 ;;
        orm)
            ensure "${postgres[@]}" node=nodejs npm=npm /usr/lib/python3/dist-packages/psycopg2=python3-psycopg2 \
                /usr/lib/python3/dist-packages/django=python3-django /usr/lib/python3/dist-packages/sqlalchemy=python3-sqlalchemy \
                /usr/lib/python3/dist-packages/alembic=python3-alembic ruby=ruby /usr/share/doc/ruby-pg=ruby-pg \
                /usr/share/doc/ruby-activerecord=ruby-activerecord
            ;;
        matrix) ensure node=nodejs npm=npm "${postgres[@]}" ;;
        *) die "need.sh: unknown group $group" ;;
    esac
done
