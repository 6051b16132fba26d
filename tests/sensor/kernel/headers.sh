#!/usr/bin/env bash
# Kernel headers for bcc, in one tree in the cache folder; prints where. Debian's, of a kernel that may be another than the running one: the
# sensor's programs read no kernel structure under bcc. Debian keeps headers in two folders that are told apart by links in /lib/modules; as
# one tree, named by BCC_KERNEL_SOURCE, they need no link. Nothing is installed.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/hopgate"
newest() {
	apt-cache depends "linux-headers-$(dpkg --print-architecture)" | awk '$1 == "Depends:" && $2 ~ /^linux-headers-/ { print $2; exit }'
}

mkdir -p "$cache"
specific="$(newest || true)"
if [ -z "$specific" ] || [ ! -d "$cache/$specific" ]; then
	[ "$(id -u)" != 0 ] || apt-get update -qq >&2
	specific="$(newest)"
fi
tree="$cache/$specific"
if [ ! -d "$tree" ]; then
	common="${specific%-*}-common"
	making="$(mktemp -d -p "$cache" .kernel-headers-XXXXXX)"
	trap 'rm -rf "$making"' EXIT
	(cd "$making" && apt-get download -qq -o APT::Sandbox::User=root "$specific" "$common" >&2)
	for package in "$making"/*.deb; do dpkg -x "$package" "$making/files"; done
	cp -a "$making/files/usr/src/$common/." "$making/tree"
	cp -a "$making/files/usr/src/$specific/." "$making/tree"
	mv -T "$making/tree" "$tree"
fi
rm -rf "$cache/kernel-headers"
ln -sfn "$specific" "$cache/kernel-headers"
echo "$tree"
