#!/usr/bin/env bash
# Fetches PostgreSQL's own test suites of a major version, src/test/regress and src/test/isolation of
# the distribution's source package, and the programs of the very same release, builds the C functions
# that the suites call, and prints the directory where `regress`, `isolation`, `lib` and `root` are. What
# is there already is not fetched again.
#
#   fetch-regress.sh 15
#
# The place is $PGWEIR_PG_CACHE, or /var/cache/pgweir for root (the servers run as another user,
# who must be able to read it), or pgweir in the user's cache directory. It needs dpkg-dev, gcc, libc6-dev
# and the libraries that come with an installed server. Nothing is installed.
set -euo pipefail

die() { printf 'fetch-regress.sh: %s\n' "$*" >&2; exit 1; }

case ${1:-} in '' | *[!0-9]*) die 'which major version of PostgreSQL? fetch-regress.sh 15' ;; esac
major=$1
if [ -n "${PGWEIR_PG_CACHE:-}" ]; then
    cache=$PGWEIR_PG_CACHE
elif [ "$(id -u)" = 0 ]; then
    cache=/var/cache/pgweir
else
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgweir
fi
dir=$cache/regress-$major
if [ -e "$dir/version" ]; then
    echo "$dir"
    exit
fi

umask 022
mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

# A list of sources of its own, made from the machine's: the machine's apt is left as it is. It is
# readable by apt's user, who does the fetching.
mkdir -p "$work/apt/parts" "$work/lists/partial" "$work/source"
chmod 755 "$work"
for part in /etc/apt/sources.list.d/*.sources; do
    [ -e "$part" ] || continue
    sed 's/^Types:.*/Types: deb-src/' "$part" > "$work/apt/parts/${part##*/}"
done
for part in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -e "$part" ] || continue
    sed -n 's/^deb /deb-src /p' "$part" >> "$work/apt/sources.list"
done
apt=(-qq -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o "Dir::Etc::sourceparts=$work/apt/parts"
    -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=)

echo "fetch-regress.sh: looking for the source package postgresql-$major" >&2
apt-get "${apt[@]}" update >&2 || echo 'fetch-regress.sh: apt-get update did not work for every source' >&2
versions=$(apt-cache "${apt[@]}" showsrc "postgresql-$major" | sed -n 's/^Version: //p' | sort -rVu)
[ -n "$versions" ] || die "no source of this machine's apt has the package postgresql-$major"
# An archive may list a source and not have it. The suites expect what programs of their own release
# print, so both have to be there.
fetched=
for version in $versions; do
    echo "fetch-regress.sh: fetching $version" >&2
    if (cd "$work/source" && apt-get "${apt[@]}" source --download-only "postgresql-$major=$version" &&
        apt-get -qq -o APT::Sandbox::User= download "postgresql-$major=$version" \
            "postgresql-client-$major=$version" "postgresql-server-dev-$major=$version") > "$work/apt.out" 2>&1; then
        fetched=$version
        break
    fi
    tail -n 3 "$work/apt.out" >&2
done
[ -n "$fetched" ] || die "the archive has none of these releases of postgresql-$major: ${versions//$'\n'/ }"

package=$work/package
mkdir "$package" "$package/lib" "$package/root"
tar -xf "$work/source/postgresql-${major}_${fetched%-*}.orig.tar.bz2" -C "$package" --strip-components=3 \
    --no-same-owner --no-same-permissions --wildcards '*/src/test/regress' '*/src/test/isolation'
for deb in "$work"/source/*.deb; do dpkg-deb -x "$deb" "$package/root"; done
config=$package/root/usr/lib/postgresql/$major/bin/pg_config
gcc -shared -fPIC -O2 -I"$("$config" --includedir-server)" -o "$package/lib/regress.so" "$package/regress/regress.c" ||
    die "building the functions of the suite failed"
# What else the suite loads comes with the server.
for module in refint autoinc; do
    ln -s "../root/usr/lib/postgresql/$major/lib/$module.so" "$package/lib/$module.so"
done
echo "$fetched" > "$package/version"
rm -rf "$dir"
mv "$package" "$dir"
echo "$dir"
