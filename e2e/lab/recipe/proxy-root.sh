#!/bin/sh
# Collects what kube-proxy calls (iptables, nft, conntrack) with the libraries
# they need, so that its image is a few megabytes and not a whole Debian.
# Usage: proxy-root.sh <root directory> <target directory>
set -eu
root=$1 target=$2

copy() { # copy <path in root>: the file and every link on the way to it
	mkdir -p "$target$(dirname "$1")"
	cp -a "$root$1" "$target$1" 2>/dev/null || true
	real=$(chroot "$root" readlink -f "$1")
	mkdir -p "$target$(dirname "$real")"
	cp -a "$root$real" "$target$real"
}

mkdir -p "$target/tmp" "$target/run" "$target/etc" "$target/usr/lib" "$target/usr/lib64" "$target/usr/bin" "$target/usr/sbin"
for link in lib lib64 bin sbin; do
	ln -sfn "usr/$link" "$target/$link"
done
programs="/usr/sbin/xtables-nft-multi /usr/sbin/nft /usr/sbin/conntrack"
plugins=$(cd "$root" && find usr/lib -path '*/xtables/*.so' | sed 's#^#/#')
for file in $programs $plugins; do
	copy "$file"
	for library in $(chroot "$root" ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do
		copy "$library"
	done
done
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
	ln -sfn xtables-nft-multi "$target/usr/sbin/$name"
done
