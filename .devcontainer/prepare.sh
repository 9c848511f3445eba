#!/bin/sh
# Runs once, when a workspace is made: kind, which no image brings along, and the lab's own environment and system programs, so that the
# first ./lab need not wait for them. What can't be had here is said, and ./lab then uses the embedded cluster.
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" = 0 ]; then sudo=''; else sudo=sudo; fi

version=v0.30.0
case $(uname -m) in
  x86_64) machine=amd64 ;;
  aarch64 | arm64) machine=arm64 ;;
  *) machine='' ;;
esac
if ! command -v kind >/dev/null && [ -n "$machine" ]; then
  file=$(mktemp)
  if curl -fsSL --retry 3 -o "$file" "https://kind.sigs.k8s.io/dl/$version/kind-linux-$machine" &&
    curl -fsSL --retry 3 "https://kind.sigs.k8s.io/dl/$version/kind-linux-$machine.sha256sum" | cut -d' ' -f1 | sed "s|\$|  $file|" | sha256sum -c -; then
    $sudo install -m 0755 "$file" /usr/local/bin/kind
  else
    echo "kind can't be had here; the lab uses its embedded cluster" >&2
  fi
  rm -f "$file"
fi

$sudo apt-get update
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends bubblewrap busybox curl iproute2 nftables nginx util-linux
$sudo mkdir -p /workspaces/.servicelab
$sudo chown "$(id -u):$(id -g)" /workspaces/.servicelab
./lab doctor || true # its exit code is 1 where no cluster can be started yet: Docker comes up after this script
