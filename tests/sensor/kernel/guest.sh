#!/usr/bin/env bash
# A Debian kernel of its own for the tests, with BPF LSM, in the cache folder; prints where. The guest has no disk: it reads this machine's files
# over 9p and writes to memory. The initramfs holds what it takes to get there. Nothing is installed.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/hopgate"
# What is made of a package depends on this file, too.
made="$(sha256sum "$0" | cut -c 1-8)"
newest() {
	apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" { print $2; exit }'
}

mkdir -p "$cache"
package="$(newest || true)"
if [ -z "$package" ] || [ ! -d "$cache/$package-$made" ]; then
	[ "$(id -u)" != 0 ] || apt-get update -qq >&2
	package="$(newest)"
fi
home="$cache/$package-$made"
if [ ! -d "$home" ]; then
	making="$(mktemp -d -p "$cache" .guest-kernel-XXXXXX)"
	trap 'rm -rf "$making"' EXIT
	mkdir -p "$making/tree/bin" "$making/tree/modules" "$making/done"
	(cd "$making" && apt-get download -qq -o APT::Sandbox::User=root "$package" >&2 && dpkg -x ./*.deb files)
	modules=(drivers/virtio/virtio drivers/virtio/virtio_ring drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci_modern_dev
		drivers/virtio/virtio_pci fs/netfs/netfs fs/fscache/fscache net/9p/9pnet net/9p/9pnet_virtio fs/9p/9p fs/overlayfs/overlay
		net/ipv4/inet_diag net/ipv4/tcp_diag net/ipv4/udp_diag)
	for module in "${modules[@]}"; do
		cp "$making"/files/lib/modules/*/kernel/"$module".ko "$making/tree/modules/"
	done
	cp "$(command -v busybox)" "$making/tree/bin/"
	cat >"$making/tree/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /host /memory
$b mount -t proc none /proc
# Which of them needs which differs between versions: what can't be put in yet is tried again.
for turn in 1 2 3; do for module in /modules/*.ko; do $b insmod $module 2>/dev/null; done; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=524288,cache=loose host /host
$b mount -t tmpfs none /memory
$b mkdir /memory/written /memory/work /memory/root
$b mount -t overlay -o lowerdir=/host,upperdir=/memory/written,workdir=/memory/work none /memory/root
cd /memory/root
$b mount -t proc none proc
$b mount -t sysfs none sys
$b mount -t securityfs none sys/kernel/security
$b mount -t devtmpfs none dev
$b mount -t cgroup2 none sys/fs/cgroup
$b mount -t tmpfs none run
$b ip link set lo up
run="$($b sed -n 's/.*hopgate.run=\([^ ]*\).*/\1/p' /proc/cmdline)"
$b chroot /memory/root /bin/sh "$run"
$b poweroff -f
INIT
	chmod +x "$making/tree/init"
	(cd "$making/tree" && find . | cpio --quiet -o -H newc | gzip -1 >"$making/done/initramfs")
	cp "$making"/files/boot/vmlinuz-* "$making/done/vmlinuz"
	mv -T "$making/done" "$home"
fi
rm -rf "$cache/guest-kernel"
ln -sfn "${home##*/}" "$cache/guest-kernel"
echo "$home"
