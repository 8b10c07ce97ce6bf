#!/bin/bash
# Makes the base images that the Dockerfiles and docker-compose.yml name, under their usual names,
# where they can be neither found nor pulled: Debian by debootstrap, the Go toolchain from this
# machine, Prometheus from Debian's package. Grafana has no Debian package and is left out.
#
#   deploy/images/make.sh [debian] [golang] [prometheus]      (default: all three)
#
# Needs a Docker engine (DOCKER_HOST or the default socket); to make Debian's, root and debootstrap,
# which it installs; for golang, go.
set -eu -o pipefail

readonly DEBIAN=debian:bookworm-slim
readonly GOLANG=golang:1.26-bookworm
readonly PROMETHEUS=prom/prometheus:v2.42.0    # what Debian 12 packages

HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../test/engine.sh
. "$HERE/../test/engine.sh"
WORK=$(mktemp -d)
# debootstrap that is broken off leaves its /proc mounted.
trap 'stop_watched; rm -rf --one-file-system "$WORK"' EXIT

# there says whether an image is here or can be pulled.
there() {
    docker image inspect "$1" > /dev/null 2>&1 && { note "$1: here"; return; }
    watched 300 "$WORK/pull.log" docker pull "$1" && { note "$1: pulled"; return; }
    note "$1: cannot be pulled; making it"
    return 1
}

# make_debian imports what debootstrap lays out, with the suites that the official image has.
make_debian() {
    there $DEBIAN && return
    local root=$WORK/debian mirror
    need_packages debootstrap=debootstrap
    build "debootstrap" debootstrap --variant=minbase bookworm "$root"
    mirror=$(awk '$1 == "deb" { print $2; exit }' "$root/etc/apt/sources.list")
    printf 'deb %s bookworm main\ndeb %s bookworm-updates main\ndeb %s-security bookworm-security main\n' \
        "$mirror" "$mirror" "$mirror" > "$root/etc/apt/sources.list"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
        "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
    tar -C "$root" --one-file-system -c . | docker import --change 'CMD ["bash"]' - $DEBIAN > /dev/null
    rm -rf "$root"
}

# make_golang puts this machine's toolchain where the official image has it.
make_golang() {
    there $GOLANG && return
    command -v go > /dev/null || fail "making $GOLANG needs go on this machine: see https://go.dev/doc/install"
    make_debian
    local root
    root=$(go env GOROOT)
    mkdir -p "$WORK/golang"
    cp "$HERE/golang.Dockerfile" "$WORK/golang/Dockerfile"
    cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$WORK/golang/ca-certificates.crt"
    (cd "$root" && tar --exclude=testdata --exclude='*_test.go' -c VERSION go.env bin pkg src lib) \
        > "$WORK/golang/go.tar"
    build "building $GOLANG" docker build --tag $GOLANG "$WORK/golang"
    rm -rf "$WORK/golang"
}

# make_prometheus lays Debian's package out as the official image is.
make_prometheus() {
    there $PROMETHEUS && return
    make_debian
    build "building $PROMETHEUS" docker build --tag $PROMETHEUS --file "$HERE/prometheus.Dockerfile" "$HERE"
}

(( $# )) || set -- debian golang prometheus
for image in "$@"; do
    case $image in
        debian | golang | prometheus) "make_$image" ;;
        *) echo "make.sh: no image $image; there are debian, golang and prometheus" >&2; exit 2 ;;
    esac
done
