#!/bin/sh
# Adds to the base root file system the packages that kind's base image has.
# Usage: node-packages.sh <root directory> <package>...
set -eu
root=$1
shift

# The resolver of this machine, for as long as packages are fetched.
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
# Nothing may be started from inside the directory (see invoke-rc.d(8)).
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"

export DEBIAN_FRONTEND=noninteractive
chroot "$root" apt-get update -q
chroot "$root" apt-get install -q -y --no-install-recommends "$@"

umount "$root/proc"
rm -rf "$root/usr/sbin/policy-rc.d" "$root/etc/resolv.conf" \
	"$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
	"$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
