#!/usr/bin/env bash
# dut.sh reset | run | dump SECTION... | down | --help
# xlvs as a device under test, for harnesses that play packets against it: the real daemon over AF_XDP on veths.
#   reset  a fresh daemon with empty tables in namespace xlvs-dut; the harness's ends are tapc (client side) and
#          taps (server side) in namespace xlvs-rig. REPLAY_L2=1: each server has a MAC of its own
#   run    one command line on stdin: ipvsadm, iptables or ip6tables with a mark, sysctl net.ipv4.vs.NAME=N, ip
#   dump   ipvsadm's listings, each below a heading: conns Ln stats thresholds persistent-conn timeout
#   down   end the daemon, remove the namespaces
# XLVS_DUT=NAME has another device beside it, in namespaces xlvs-dut-NAME and xlvs-rig-NAME.
# XLVS_PROGRAMS says where xlvs and ipvsadm are (default target/release), XLVS_QUEUES how many queues each interface
# has, and so how many workers there are (default 1). With two, clients' packets come by the first and servers' by the
# second, so that each side's keep their order; with XLVS_SPREAD=hash by either, and packets sent at once may overtake. With XLVS_SHORTCUT=1 at the reset, established connections take the
# shortcut from their first packet on; else none does.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DUT=xlvs-dut${XLVS_DUT:+-$XLVS_DUT} RIG=xlvs-rig${XLVS_DUT:+-$XLVS_DUT}
RUN=/run/$DUT
PROGRAMS=${XLVS_PROGRAMS:-$HERE/../target/release}
QUEUES=${XLVS_QUEUES:-1}
. "$HERE/lab/processes.sh"
export XLVS_SOCKET=$RUN/control.sock

die() {
  printf 'dut: %s\n' "$1" >&2
  exit 2
}

CLIENT_SIDE_MAC=02:00:00:00:0c:fe
SERVER_SIDE_MAC=02:00:00:00:05:fe

make_network() {
  ip netns add "$DUT"
  ip netns add "$RIG"
  # The harness answers ARP and neighbour solicitations itself; the kernel there has to keep silent.
  ip netns exec "$RIG" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
  ip netns exec "$DUT" sysctl -qw \
    net.ipv6.conf.{all,default}.{accept_dad,router_solicitations,accept_ra}=0 \
    net.ipv4.conf.{all,default}.{rp_filter,send_redirects,accept_redirects}=0 \
    net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
  cable eth0 02:00:00:00:0c:01 tapc $CLIENT_SIDE_MAC
  cable eth1 02:00:00:00:05:01 taps $SERVER_SIDE_MAC
  configure_device | ip -n "$DUT" -batch -
}

# cable INTERFACE MAC RIG_INTERFACE RIG_MAC: neither end leaves checksums half-made.
cable() {
  local queues="numrxqueues $QUEUES numtxqueues $QUEUES"
  # shellcheck disable=SC2086
  ip -n "$DUT" link add "$1" address "$2" $queues type veth peer name "$3" address "$4" $queues netns "$RIG"
  ip netns exec "$DUT" ethtool -K "$1" tx off >/dev/null
  ip netns exec "$RIG" ethtool -K "$3" tx off >/dev/null
  ip -n "$RIG" link set "$3" arp off up
  [[ $QUEUES = 1 || ${XLVS_SPREAD-} = hash ]] || send_by_queue "$3"
}

# All of the rig's CPUs send by one queue of its interface, which is the device's receive queue of that number.
send_by_queue() {
  local queue=0
  [[ $1 != taps ]] || queue=1
  printf '%x' $(((1 << $(nproc --all)) - 1)) |
    ip netns exec "$RIG" tee "/sys/class/net/$1/queues/tx-$queue/xps_cpus" >/dev/null
}

# Lets the rig's ends take redirected frames. A veth does with an XDP program at its other end; merged frames would be no
# longer those that were sent.
open_for_shortcut() {
  echo '__attribute__((section("xdp"), used)) int pass(void *context) { return 2; }' |
    clang -O2 -target bpf -x c -c - -o "$RUN/pass.o"
  local interface
  for interface in tapc taps; do
    ip -n "$RIG" link set "$interface" xdp object "$RUN/pass.o" section xdp
    ip netns exec "$RIG" ethtool -K "$interface" gro off
  done
}

shortcut_settings() {
  if [[ -n ${XLVS_SHORTCUT-} ]]; then
    printf 'shortcut = true\nshortcut_after = 0\n'
  else
    echo 'shortcut = false'
  fi
}

configure_device() {
  cat <<'BATCH'
link set lo up
link set eth0 up
link set eth1 up
addr add 10.10.1.1/24 dev eth0
addr add 10.10.1.30/32 dev eth0
addr add 10.8.8.1/24 dev eth1
addr add fd00:10::1/64 dev eth0 nodad
addr add fd00:10::30/128 dev eth0 nodad
addr add fd00:8::1/64 dev eth1 nodad
route add default via 10.10.1.254
route add default via fd00:10::fe dev eth0
BATCH
}

# What a scenario may have changed, and the neighbours, known so that no first packet waits for them.
restore_device() {
  printf 'link set %s mtu 1500\n' eth0 eth1
  printf "neigh replace %s lladdr $CLIENT_SIDE_MAC nud permanent dev eth0\n" 10.10.1.254 fd00:10::fe
  local host mac=$SERVER_SIDE_MAC mac6=$SERVER_SIDE_MAC
  for host in {33..44}; do
    if [[ -n ${REPLAY_L2-} ]]; then
      printf -v mac '02:00:00:08:08:%02x' "$host"
      # fd00:8::33 is written in hexadecimal.
      mac6=02:00:00:08:06:$host
    fi
    echo "neigh replace 10.8.8.$host lladdr $mac nud permanent dev eth1"
    echo "neigh replace fd00:8::$host lladdr $mac6 nud permanent dev eth1"
  done
}

empty_marks() {
  printf '*mangle\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n' | tee "$RUN/iptables" >"$RUN/ip6tables"
}

start_daemon() {
  empty_marks
  rm -f "$RUN/xlvs.log"
  {
    printf 'ports = ["eth0", "eth1"]\ncontrol_socket = "%s"\n' "$XLVS_SOCKET"
    shortcut_settings
  } >"$RUN/xlvs.toml"
  spawn "$DUT" xlvs "$PROGRAMS/xlvs" run --bare --marks "$RUN/iptables" --marks6 "$RUN/ip6tables" \
    --settings "$RUN/xlvs.toml"
  within 5 ready && running xlvs && return
  tail -n 20 "$RUN/xlvs.log" >&2
  die 'the daemon did not come up'
}

ready() {
  ! running xlvs || "$PROGRAMS/xlvs" status >/dev/null 2>&1
}

reset() {
  mkdir -p "$RUN"
  stop xlvs || echo 'dut: the daemon had to be killed' >&2
  has_network || { remove_network && make_network; }
  restore_device | ip -n "$DUT" -batch -
  [[ -z ${XLVS_SHORTCUT-} || -e $RUN/pass.o ]] || open_for_shortcut
  start_daemon
}

# Whether the namespaces are there, with as many queues as are asked for.
has_network() {
  [[ -e /run/netns/$DUT && -e /run/netns/$RIG ]] || return
  local present
  present=$(ip -n "$DUT" -d link show dev eth0) && [[ $present == *" numrxqueues $QUEUES "* ]]
}

# add_mark FILE RULE: as typed after "-A PREROUTING", written where the saved rules are.
add_mark() {
  sed -i "s|^COMMIT\$|-A PREROUTING $2\\n&|" "$RUN/$1"
  "$PROGRAMS/xlvs" reload >/dev/null
}

# change_setting [-qw] NAME[=VALUE]...: as sysctl(8) says it; what a refusal explains below its first line is left out.
change_setting() {
  local quiet=
  [[ $1 != -* ]] || { [[ $1 != *q* ]] || quiet=y && shift; }
  local word text
  for word; do
    if text=$("$PROGRAMS/xlvs" sysctl "$word" 2>&1); then
      [[ $quiet && $word == *=* ]] || echo "$text"
    else
      echo "${text%%$'\n'*}" >&2
      return 1
    fi
  done
}

run_line() {
  local line words
  IFS= read -r line || [[ -n $line ]]
  read -ra words <<<"$line"
  case $line in
  ipvsadm | ipvsadm\ *) PATH=$PROGRAMS:$PATH exec bash -c "$line" ;;
  'iptables -t mangle -A PREROUTING '*) add_mark iptables "${line#* PREROUTING }" ;;
  'ip6tables -t mangle -A PREROUTING '*) add_mark ip6tables "${line#* PREROUTING }" ;;
  'sysctl '*)
    # A value may have blanks, in quotes.
    eval "words=($line)"
    change_setting "${words[@]:1}"
    ;;
  'ip '*)
    ip -n "$DUT" "${words[@]:1}"
    # The daemon gathers changes of the network for up to 100 ms.
    sleep 0.2
    ;;
  # What this loads into a kernel is part of xlvs.
  'modprobe ip_vs_'*) ;;
  *) die "no such command here: $line" ;;
  esac
}

# section NAME HEADING OPTION...
section() {
  [[ $WANTED == *" $1 "* ]] || return 0
  echo "== $2"
  shift 2
  "$PROGRAMS/ipvsadm" "$@" 2>&1 || true
}

dump() {
  WANTED=" ${*:-conns Ln stats thresholds persistent-conn timeout} "
  # The connections first: their timers run.
  section conns Lnc -Lnc
  section Ln Ln -Ln
  section stats stats -Ln --stats --exact
  section thresholds thresholds -Ln --thresholds
  section persistent-conn persistent-conn -Ln --persistent-conn
  section timeout timeout -Ln --timeout
}

remove_network() {
  local namespace
  for namespace in "$DUT" "$RIG"; do
    [[ ! -e /run/netns/$namespace ]] || ip netns del "$namespace"
  done
}

down() {
  stop_all
  remove_network
  rm -rf "$RUN"
}

tell_help() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  cat <<TEXT

The namespaces have to be there before a harness enters one:

  ${BASH_SOURCE[0]} reset
  replay.py SCENARIO.json... --compare --dut ${BASH_SOURCE[0]} --netns xlvs-rig --cif tapc --sif taps
TEXT
}

case "${1-}" in
--help) tell_help ;;
reset | run | dump | down)
  ((EUID == 0)) || die 'network namespaces need root'
  [[ $1 == down || -x $PROGRAMS/xlvs && -x $PROGRAMS/ipvsadm ]] || die "$PROGRAMS has no xlvs and ipvsadm: run make build"
  command=$1
  shift
  [[ $command != run ]] || command=run_line
  "$command" "$@"
  ;;
*)
  tell_help >&2
  exit 2
  ;;
esac
