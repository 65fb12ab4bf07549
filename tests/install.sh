#!/usr/bin/env bash
# install.sh build|check|demo|test|fuzz|bench|guest: installs what that purpose needs and is missing, by apt and, for fuzzing, by cargo.
# With everything there it calls neither.
set -euo pipefail

die() {
  printf '%s: %s\n' "$0" "$1" >&2
  exit 1
}

# need PACKAGE FILE...: the package is wanted unless one of its files is there (a bare name is looked up in PATH).
missing=()
need() {
  local package=$1 file
  shift
  for file in "$@"; do
    if [[ -e $file ]] || command -v "$file" >/dev/null; then return 0; fi
  done
  missing+=("$package")
}

need_for_build() {
  need build-essential cc
  need pkg-config pkg-config
  need clang clang
  need m4 m4
  need libelf-dev /usr/include/libelf.h
  need zlib1g-dev /usr/include/zlib.h
}

need_for_network() {
  need iproute2 ip
  need ethtool ethtool
}

need_for_fuzz() {
  need g++ c++
}

need_for_demo() {
  need nginx-light nginx
  need curl curl
  need openssl openssl
  need iputils-ping ping
}

need_for_bench() {
  need python3 /usr/bin/pydoc3
  need haproxy haproxy /usr/sbin/haproxy
  need nftables nft /usr/sbin/nft
  need nginx-light nginx /usr/sbin/nginx
  need wrk wrk
  need curl curl
  need libbpf-dev /usr/include/bpf/libbpf.h
  need libxdp-dev /usr/include/xdp/xsk.h
  need gnuplot-nox gnuplot
  need procps pgrep
}

need_for_manual() {
  need groff-base groff
}

# systemd need not run on this machine: it does in a container of its own.
need_for_unit() {
  need systemd /usr/lib/systemd/systemd /lib/systemd/systemd
  need util-linux setpriv
  need util-linux nsenter
}

need_for_checks() {
  need dnsmasq-base dnsmasq /usr/sbin/dnsmasq
}

need_for_ftp() {
  need vsftpd vsftpd /usr/sbin/vsftpd
  need curl curl
}

# It depends on the kernel's ipvsadm, which its test covers with ours.
need_for_ldirectord() {
  need ldirectord ldirectord /usr/sbin/ldirectord
}

# Linux's IPVS as the other router of a pair.
need_for_mixed() {
  need user-mode-linux linux.uml
}

# The guest, what is compared in it, and the other ends of its tests.
need_for_guest() {
  need qemu-system-x86 qemu-system-x86_64
  need kmod /usr/sbin/modprobe /sbin/modprobe
  need xz-utils unxz
  need procps sysctl
  need bpftool bpftool /usr/sbin/bpftool
  need nftables nft /usr/sbin/nft
  need ipvsadm ipvsadm /usr/sbin/ipvsadm
  need python3 /usr/bin/pydoc3
}

check_rust() {
  command -v cargo >/dev/null || die 'cargo is missing: install Rust from https://rustup.rs, then try again'
  [[ $1 == check || $1 == test ]] || return 0
  cargo fmt --version >/dev/null 2>&1 || die 'rustfmt is missing: rustup component add rustfmt'
  cargo clippy --version >/dev/null 2>&1 || die 'clippy is missing: rustup component add clippy'
}

# cargo-fuzz comes from crates.io; building it takes about a minute.
install_cargo_fuzz() {
  cargo fuzz --version >/dev/null 2>&1 && return 0
  echo 'installing cargo-fuzz'
  cargo install --quiet --locked cargo-fuzz || die 'cargo-fuzz could not be installed (is there a network?)'
}

# Demo, tests and benchmarks start an nginx, a vsftpd, a ldirectord and a HAProxy of their own in their namespaces (dnsmasq-base has no service); a package installed for them must
# not open a port of this machine or touch its IPVS, neither now nor after the next boot.
policy=/usr/sbin/policy-rc.d
forbid_services() {
  [[ ! -e $policy ]] || return 0
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod +x "$policy"
}

apt_install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

install_missing() {
  local what="${missing[*]}"
  command -v apt-get >/dev/null || die "these Debian packages, or their like, are needed: $what"
  as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "these packages are needed: $what (install them, or run this as root)"
    as_root=(sudo)
  fi
  echo "installing $what"
  forbid_services
  # The package lists may be absent or too old; fetching them takes time, so only when the first try fails.
  apt_install "${missing[@]}" >/dev/null 2>&1 \
    || { "${as_root[@]}" apt-get update -qq && apt_install "${missing[@]}" >/dev/null; } \
    || die "apt could not install $what (is there a network?)"
  local service
  for service in nginx vsftpd ldirectord haproxy; do
    if [[ " $what " == *" $service"* ]]; then
      "${as_root[@]}" update-rc.d "$service" disable >/dev/null 2>&1 || true
    fi
  done
}

case "${1-}" in
build) need_for_build ;;
check) need_for_build && need shellcheck shellcheck ;;
demo) need_for_build && need_for_network && need_for_demo ;;
test)
  need_for_build && need_for_network && need_for_demo && need_for_checks && need_for_ftp && need_for_ldirectord && need_for_mixed && need_for_manual && need_for_unit && need_for_fuzz
  need shellcheck shellcheck
  ;;
fuzz) need_for_build && need_for_fuzz ;;
bench) need_for_build && need_for_network && need_for_bench ;;
guest) need_for_build && need_for_network && need_for_demo && need_for_guest ;;
*) die 'say what for: build, check, demo, test, fuzz, bench or guest' ;;
esac
check_rust "$1"
((${#missing[@]} == 0)) || install_missing
if [[ $1 == test || $1 == fuzz ]]; then install_cargo_fuzz; fi
