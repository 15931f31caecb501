#!/bin/sh
# Makes the root file system of the lab's base image: a minimal Debian with
# curl and certificates, without what a container never reads.
# Usage: base.sh <root directory> <suite> <mirror> <components>
set -eu
root=$1 suite=$2 mirror=$3 components=$4

debootstrap --variant=minbase --include=ca-certificates,curl \
	--components="$components" "$suite" "$root" "$mirror"

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
	"$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/* \
	"$root"/usr/share/info/* "$root"/etc/resolv.conf "$root"/etc/hostname
