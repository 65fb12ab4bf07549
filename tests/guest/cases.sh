#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR/../..
# cases.sh [CASE...]: in the guest: real TCP through xlvs on devices that a container's kernel may lack, and what xlvs says of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
RUN=/run/xlvs-guest
VIP=10.10.1.30
PROGRAMS=${PROGRAMS:-target/release}
CASES=(queues vlans trunks bonds no_zero_copy no_native jumbo)
CONNECTIONS=100
# 20 MB in segments of the largest MTU.
BODY_PACKETS=5000
export XLVS_SOCKET=$RUN/control.sock
. tests/lab/processes.sh
. tests/lab/claims.sh
. tests/lab/web.sh
. tests/guest/network.sh

# --- the daemon

# start_daemon SETTING...: lines of xlvs.toml. Every packet goes by the rings unless SHORTCUT is true.
start_daemon() {
  rm -f "$RUN/xlvs.log"
  printf '*mangle\nCOMMIT\n' | tee "$RUN/iptables" >"$RUN/ip6tables"
  {
    printf 'ports = ["%s", "%s"]\ncontrol_socket = "%s"\n' "${FRONT_CARD:-$FRONT}" "${BACK_CARD:-$BACK}" "$XLVS_SOCKET"
    printf 'shortcut = %s\n' "${SHORTCUT:-false}"
    (($# == 0)) || printf '%s\n' "$@"
  } >"$RUN/xlvs.toml"
  spawn xlvs-router xlvs "$PROGRAMS/xlvs" run --bare --marks "$RUN/iptables" --marks6 "$RUN/ip6tables" --settings "$RUN/xlvs.toml"
  within 30 answers_or_ended
}

answers_or_ended() {
  ! running xlvs || "$PROGRAMS/xlvs" status >/dev/null 2>&1
}

serve() {
  start_daemon "$@" && running xlvs || { tail -n 5 "$RUN/xlvs.log" && expected 'the daemon stays up' || return; }
  "$PROGRAMS/ipvsadm" -A -t "$VIP:80" -s rr
  "$PROGRAMS/ipvsadm" -a -t "$VIP:80" -r 10.8.8.33:80 -m
  "$PROGRAMS/ipvsadm" -a -t "$VIP:80" -r 10.8.8.34:80 -m
}

# reports TEXT: in a line of xlvs status.
reports() {
  "$PROGRAMS/xlvs" status | grep -F "$1" || { "$PROGRAMS/xlvs" status && expected "$1"; }
}

logged() {
  grep -oF "$1" "$RUN/xlvs.log" | head -n 1 | grep . || { cat "$RUN/xlvs.log" && expected "$1"; }
}

# --- the traffic

fetch() {
  ip netns exec xlvs-client curl -sS --noproxy '*' --connect-timeout 5 --max-time 60 --fail -H 'Connection: close' "$@"
}

# Each over a connection of its own.
fetch_many() {
  fetch -w '%{num_connects} %{http_code}\n' -o /dev/null "http://$VIP/?[1-$CONNECTIONS]" >"$RUN/fetched" 2>"$RUN/errors" || true
  local good
  good=$(grep -c '^1 200$' "$RUN/fetched" || true)
  ((good == CONNECTIONS)) || { head -n 3 "$RUN/errors" && expected "$CONNECTIONS answers; there were $good"; }
}

body_intact() {
  local sum
  sum=$(fetch "http://$VIP/body" | sha256sum)
  [[ $sum == "$(<"$RUN/site/body.sha256")" ]] || expected 'the sum of what the server has'
}

# settled COMMAND...: within five seconds; tells what the last try said.
settled() {
  local result=0
  within 5 saying "$@" || result=1
  cat "$RUN/said"
  return "$result"
}

saying() {
  "$@" >"$RUN/said"
}

# stats_of SERVER: its line of ipvsadm --stats: connections, packets in and out.
stats_of() {
  "$PROGRAMS/ipvsadm" -Ln --stats --exact | awk -v server="$1:80" '$2 == server { print $3, $4, $5 }'
}

# At most two seconds old, as the kernel's are. A connection cannot do without SYN, ACK, a request and FINs one way, and as
# many the other way; the body takes some thousands.
all_counted() {
  local server connections in out total=0 sent=0
  for server in 10.8.8.33 10.8.8.34; do
    read -r connections in out < <(stats_of "$server")
    printf '%s: %s connections, %s packets in, %s out; ' "$server" "$connections" "$in" "$out"
    ((in >= 4 * connections && out >= 3 * connections)) || expected 'at least four packets in and three out of each' || return
    total=$((total + connections)) sent=$((sent + out))
  done
  ((total == CONNECTIONS + 1)) || expected "$((CONNECTIONS + 1)) connections" || return
  ((sent >= BODY_PACKETS)) || expected "at least $BODY_PACKETS packets out"
}

counted() {
  settled all_counted
}

packet_balance() {
  local status n
  status=$("$PROGRAMS/xlvs" status)
  [[ $status =~ received\ ([0-9]+)\ =\ transmitted\ ([0-9]+)\ \+\ passed\ ([0-9]+)\ \+\ handed\ over\ ([0-9]+)\ \+\ dropped\ ([0-9]+) ]]
  echo "${BASH_REMATCH[0]}"
  n=("${BASH_REMATCH[@]:1}")
  # By the rings, but for the first packets, whose neighbour the kernel has to find.
  ((n[0] == n[1] + n[2] + n[3] + n[4] && n[1] > 9 * n[0] / 10 && n[4] == 0))
}

books_balance() {
  settled packet_balance || expected 'nine of ten received packets transmitted, none dropped, every one accounted for'
}

# check TEXT COMMAND...: a claim of the case at hand.
check() {
  claim "${CASE//_/ }: $1" "${@:2}"
}

carries_traffic() {
  check "$CONNECTIONS connections, each answered" fetch_many || true
  check '20 MB arrive intact' body_intact || true
  check 'ipvsadm --stats counts them' counted || true
  check 'every packet is accounted for' books_balance || true
}

packets_cut_short() {
  local packets
  packets=$("$PROGRAMS/xlvs" status | sed -n 's/^  packets \([0-9]*\), directions of connections.*/\1/p')
  echo "${packets:=0} packets"
  ((packets >= BODY_PACKETS)) || { "$PROGRAMS/xlvs" status && expected "at least $BODY_PACKETS by the shortcut"; }
}

# shortcut_carries SETTING...: the same once more, where established connections take the shortcut.
shortcut_carries() {
  stop xlvs
  local SHORTCUT=true
  check 'with the shortcut xlvs serves it' serve "$@" || return
  check "the shortcut: $CONNECTIONS connections, each answered" fetch_many || true
  check 'the shortcut: 20 MB arrive intact' body_intact || true
  check 'the shortcut carries them' packets_cut_short || true
  check 'the shortcut: ipvsadm --stats counts them' counted || true
}

# --- the cases

# redirected CARD QUEUE: packets that this queue has sent up; the driver's name for it has changed once.
redirected() {
  ip netns exec xlvs-router ethtool -S "$1" | awk -v queue="$2" '$1 ~ "^rx(_queue_)?" queue "_xdp_redirects:" { print $2 }'
}

both_queues_carry() {
  local card queue packets
  for card in "$FRONT" "$BACK"; do
    for queue in 0 1; do
      packets=$(redirected "$card" "$queue")
      printf '%s queue %s: %s packets; ' "$card" "$queue" "${packets:=0}"
      ((packets >= CONNECTIONS)) || expected 'a good part of the connections on each' || return
    done
  done
}

case_queues() {
  build_network cards
  start_servers
  check 'xlvs serves both' serve || return
  check 'with a worker for each' reports '2 worker(s)' || true
  check 'in native mode' reports "port $FRONT: XDP native, AF_XDP copy, 2 queue(s)" || true
  check 'and says why not with zero-copy' logged "copy, not zero-copy: $FRONT refuses it (" || true
  carries_traffic
  check 'both queues of both cards carry them' both_queues_carry || true
  shortcut_carries
}

# whole_packets CARD...: joined segments would be longer than a frame. Native mode sees to it itself.
whole_packets() {
  local card
  for card; do
    ip netns exec xlvs-router ethtool -K "$card" gro off rx-gro-hw off
  done
  # Nor are half-made checksums for the shortcut.
  ip netns exec xlvs-client ethtool -K "$CLIENT_DEVICE" tx off >/dev/null
  ip netns exec xlvs-servers ethtool -K "$SERVERS_DEVICE" tx off >/dev/null
}

case_vlans() {
  build_network vlans
  whole_packets card0b card1b
  start_servers
  check 'xlvs serves them' serve || return
  check 'in skb mode' reports "port $FRONT: XDP skb, AF_XDP copy" || true
  check 'and says why not in native mode' logged "$FRONT: cannot attach the XDP program in native mode" || true
  check 'nor with zero-copy' logged "copy, not zero-copy: $FRONT is not in native mode" || true
  carries_traffic
  shortcut_carries
}

goes_by_kernel() {
  local status
  status=$("$PROGRAMS/xlvs" status)
  echo "$status" | grep '^packets:'
  [[ $status == *'transmitted 0 + passed 0 + handed over'* ]] || expected 'everything handed over'
}

# The cards are served, and the routes lead to the VLAN devices, which are not.
case_trunks() {
  build_network trunks
  start_servers
  check 'xlvs serves cards that carry VLANs' serve || return
  check 'in native mode' reports "port $FRONT_CARD: XDP native" || true
  check "$CONNECTIONS connections, each answered" fetch_many || true
  check '20 MB arrive intact' body_intact || true
  check 'the kernel sends what xlvs has translated' goes_by_kernel || true
  unset FRONT_CARD BACK_CARD
}

refuses() {
  start_daemon "$1"
  ! running xlvs || expected 'the daemon ends' || return
  tail -n 1 "$RUN/xlvs.log" | grep -F "$2" || { tail -n 5 "$RUN/xlvs.log" && expected "$2"; }
}

case_bonds() {
  build_network bonds
  ip netns exec xlvs-router ethtool --set-channels "$BACK" combined 1
  start_servers
  check 'native mode is refused' refuses 'xdp_mode = "native"' "$FRONT is a bond" || true
  check 'else xlvs serves it' serve || return
  check 'in skb mode' reports "port $FRONT: XDP skb, AF_XDP copy, 1 queue(s)" || true
  check 'and says why not in native mode' logged "$FRONT is a bond, whose packets come by its members" || true
  carries_traffic
  ip -n xlvs-router link set member0 down
  check 'the other member carries on alone' fetch_many || true
}

case_no_zero_copy() {
  build_network cards
  check 'zero_copy = "on" is refused with what to do' refuses 'zero_copy = "on"' 'set zero_copy = "auto" or "off"' || true
}

# What does not fit a page; not every driver refuses that.
case_no_native() {
  build_network cards 3700
  whole_packets "$FRONT" "$BACK"
  start_servers
  check 'xlvs serves an MTU too large for native mode' serve 'frame_size = 4096' || return
  check 'in skb mode' reports "port $FRONT: XDP skb, AF_XDP copy, 2 queue(s)" || true
  check 'and says why not in native mode' logged 'the MTU is too large for native mode: 3700' || true
  carries_traffic
  shortcut_carries 'frame_size = 4096'
}

# Linux 6.1 does not put a packet in several frames.
case_jumbo() {
  build_network cards 9000
  if [[ $(uname -r) == 6.1.* ]]; then
    check 'an MTU of 9000 is refused with what to do' refuses '' 'use Linux 6.6 or newer, or run `ip link set dev' || true
    return
  fi
  whole_packets "$FRONT" "$BACK"
  start_servers
  check 'xlvs serves an MTU of 9000' serve || return
  check 'in native mode' reports "port $FRONT: XDP native" || true
  BODY_PACKETS=2000 carries_traffic
  BODY_PACKETS=2000 shortcut_carries
}

start_servers() {
  start_nginx servers 80
  within 30 server_answers || expected 'nginx answers' >&2
}

server_answers() {
  ip netns exec xlvs-servers curl -sS --noproxy '*' -o /dev/null http://10.8.8.33/ 2>/dev/null
}

# The cards are the guest's, for the next case as well.
tear_down() {
  ((${#FAILED[@]} == failed)) || tail -n 20 "$RUN/xlvs.log"
  stop_all
  remove_network
}

(($# == 0)) || CASES=("$@")
mkdir -p "$RUN"
make_site
for CASE in "${CASES[@]}"; do
  failed=${#FAILED[@]}
  "case_$CASE" || true
  tear_down
done
summary
