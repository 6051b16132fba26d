#!/bin/sh
# Writes to the archive $1 a Debian with Python 3.11 and nothing else that the images need, for machines without a registry. As root.
# Documentation goes, copyright files stay. Without the package manager's own programs: what is in an image is what was put in.
set -eu

# In memory, and gone with this process: dpkg waits for the disk after every file.
if [ -z "${HOPGATE_IN_MEMORY:-}" ]; then
	HOPGATE_IN_MEMORY=1 exec unshare --mount sh "$0" "$@"
fi
exec 3>"$1" # before the mount, which may hide its path
work=/tmp
mount -t tmpfs -o mode=755 tmpfs "$work"
root="$work/root"
debootstrap --variant=minbase --include=python3-minimal,libpython3-stdlib,ca-certificates bookworm "$root" "${HOPGATE_DEBIAN_MIRROR:-}" >&2
ln -s python3 "$root/usr/bin/python"
chroot "$root" dpkg --purge --force-depends apt libapt-pkg6.0 gpgv debian-archive-keyring e2fsprogs >&2
cd "$root"
rm -rf var/lib/apt var/cache/apt var/cache/debconf usr/share/man usr/share/info usr/share/locale usr/share/lintian usr/share/zoneinfo
find usr/share/doc ! -type d ! -name copyright -delete
find usr/share/doc -type d -empty -delete
find var/log tmp -type f -delete
tar --numeric-owner --one-file-system --sort=name -cf - . >&3
