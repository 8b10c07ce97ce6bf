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
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# there says whether an image is here or can be pulled.
there() {
    docker image inspect "$1" > /dev/null 2>&1 && { echo "$1: here"; return; }
    timeout 300 docker pull --quiet "$1" > /dev/null 2>&1 && { echo "$1: pulled"; return; }
    echo "$1: cannot be pulled; making it"
    return 1
}

# make_debian imports what debootstrap lays out, with the suites that the official image has.
make_debian() {
    there $DEBIAN && return
    local root=$WORK/debian mirror
    if ! command -v debootstrap > /dev/null; then
        apt-get update -qq > /dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap > /dev/null
    fi
    debootstrap --variant=minbase bookworm "$root" > "$WORK/debootstrap.log" 2>&1 || { tail -n 5 "$WORK/debootstrap.log"; return 1; }
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
    make_debian
    local root
    root=$(go env GOROOT)
    mkdir -p "$WORK/golang"
    cp "$HERE/golang.Dockerfile" "$WORK/golang/Dockerfile"
    cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$WORK/golang/ca-certificates.crt"
    (cd "$root" && tar --exclude=testdata --exclude='*_test.go' -c VERSION go.env bin pkg src lib) \
        > "$WORK/golang/go.tar"
    docker build --quiet --tag $GOLANG "$WORK/golang" > /dev/null
    rm -rf "$WORK/golang"
}

# make_prometheus lays Debian's package out as the official image is.
make_prometheus() {
    there $PROMETHEUS && return
    make_debian
    docker build --quiet --tag $PROMETHEUS - < "$HERE/prometheus.Dockerfile" > /dev/null
}

(( $# )) || set -- debian golang prometheus
for image in "$@"; do
    case $image in
        debian | golang | prometheus) "make_$image" ;;
        *) echo "make.sh: no image $image; there are debian, golang and prometheus" >&2; exit 2 ;;
    esac
done
