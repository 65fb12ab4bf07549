#!/usr/bin/env bash
# kernel.sh 6.1|6.12: fetches and unpacks a Debian kernel for the guest, once; prints the directory that has
#   vmlinuz, initrd (enough to reach this machine's root directory), modules (its /lib/modules/VERSION).
# The directory is below target/guest, or below $XLVS_GUEST_CACHE; remove it to get a newer kernel.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XLVS_GUEST_CACHE:-${CARGO_TARGET_DIR:-$HERE/../../target}/guest}

die() {
  printf 'kernel: %s\n' "$1" >&2
  exit 1
}

# newest PATTERN: the last in order of version of the packages whose names match.
newest() {
  apt-cache pkgnames linux-image- | grep -E "$1" | sort -V | tail -n 1
}

# package_of KERNEL: "unsigned" packages hold the kernel itself; the others depend on it or repeat it.
package_of() {
  local name
  name=$(newest "^linux-image-${1/./\\.}\.[0-9][^ ]*-cloud-amd64-unsigned\$")
  [[ -n $name ]] || name=$(newest "^linux-image-${1/./\\.}\.[0-9][^ ]*-cloud-amd64\$")
  [[ -n $name ]] || die "apt knows no cloud kernel $1: run apt-get update; Debian 12 has 6.1 and, among its security updates, 6.12"
  echo "$name"
}

# fetch PACKAGE DIRECTORY: unpacked there. The server, or the package lists, may be out of step for a while.
fetch() {
  local from=$PWD downloads
  downloads=$(mktemp -d "$KERNEL/download.XXXXXX")
  cd "$downloads"
  apt-get -o APT::Sandbox::User=root -qq download "$1" >&2 || die "apt-get could not download $1: is there a network? if so, run apt-get update"
  cd "$from"
  dpkg-deb --extract "$downloads"/*.deb "$2"
  rm -r "$downloads"
}

unpack_kernel() {
  local root=$KERNEL/root
  rm -rf "$root"
  fetch "$(package_of "$VERSION")" "$root"
  fetch busybox-static "$root/busybox"
  local modules=("$root"/lib/modules/*) release
  release=${modules[0]##*/}
  find "${modules[0]}" -name '*.ko.xz' -print0 | xargs -0 --no-run-if-empty unxz
  depmod --basedir "$root" "$release"
  ln -sfn "root/boot/vmlinuz-$release" "$KERNEL/vmlinuz"
  ln -sfn "root/lib/modules/$release" "$KERNEL/modules"
}

# The files of these modules and of what they need, in the order to load them.
module_files() {
  local module release
  release=$(basename "$(readlink "$KERNEL/modules")")
  for module in virtio_pci virtio_console virtio-rng virtiofs overlay; do
    modprobe --dirname "$KERNEL/root" --set-version "$release" --show-depends "$module" 2>/dev/null || true
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

make_initrd() {
  local tree number=10 file
  tree=$(mktemp -d "$KERNEL/initrd.XXXXXX")
  mkdir "$tree"/{bin,proc,sys,dev,modules,machine,layer,root}
  cp "$KERNEL/root/busybox/bin/busybox" "$tree/bin/busybox"
  ln -s busybox "$tree/bin/sh"
  install -m 755 "$HERE/init" "$tree/init"
  while read -r file; do
    cp "$file" "$tree/modules/$number-${file##*/}"
    number=$((number + 1))
  done < <(module_files)
  (cd "$tree" && find . | bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$KERNEL/initrd.new"
  rm -r "$tree"
  mv "$KERNEL/initrd.new" "$KERNEL/initrd"
}

VERSION=${1-}
case $VERSION in
6.1 | 6.12) ;;
*) die 'say which kernel: 6.1 or 6.12' ;;
esac
[[ $(uname -m) == x86_64 ]] || die 'the guest is an x86_64 machine, and so must this one be'
mkdir -p "$CACHE/$VERSION"
KERNEL=$(cd "$CACHE/$VERSION" && pwd)
exec 9>"$KERNEL/lock"
flock 9
[[ -e $KERNEL/vmlinuz && -e $KERNEL/modules ]] || unpack_kernel
[[ -e $KERNEL/initrd && $KERNEL/initrd -nt $HERE/init && $KERNEL/initrd -nt $HERE/kernel.sh ]] || make_initrd
echo "$KERNEL"
