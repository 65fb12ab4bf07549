#!/usr/bin/env bash
# mixed.sh [--programs DIR] [--uml DIR] [--connections N]
# Linux's IPVS and xlvs as two routers that synchronise connections: the one is active, the other takes over, and no
# connection may break; first the one way, then the other. Linux is a user-mode-linux guest (Debian's package of this name),
# below / or in the directory of --uml. Needs root and nginx.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROGRAMS=$HERE/../target/release UML=/ CONNECTIONS=100
while (($#)); do
  case $1 in
  --programs) PROGRAMS=$(realpath "$2") && shift 2 ;;
  --uml) UML=$(realpath "$2") && shift 2 ;;
  --connections) CONNECTIONS=$2 && shift 2 ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" && exit 2 ;;
  esac
done
RUN=$(mktemp -d /tmp/xlvs-mixed.XXXXXX)
. "$HERE/lab/processes.sh"
export XLVS_SOCKET=$RUN/control.sock
export PATH=$PROGRAMS:$PATH
KERNEL=(02:00:00:00:0c:01 02:00:00:00:05:01) XLVS=(02:00:00:00:0c:02 02:00:00:00:05:02)
SERVICE='ipvsadm -A -t 10.10.1.30:80 -s rr && ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:8080 -m'
SYNC='--mcast-interface eth1 --syncid 7'
commands=0

die() {
  printf 'mixed: %s\n' "$1" >&2
  exit 1
}

clean_up() {
  stop_all || true
  for namespace in xlvs-mixed xlvs-mixed-peer xlvs-mixed-client xlvs-mixed-server; do
    [[ ! -e /run/netns/$namespace ]] || ip netns del "$namespace"
  done
  rm -rf "$RUN"
}

# plug NAMESPACE INTERFACE MAC BRIDGE
plug() {
  local end=${1##*-}.$2
  ip -n xlvs-mixed link add "$end" type veth peer name "$2" address "$3" netns "$1"
  ip netns exec "$1" ethtool -K "$2" tx off >/dev/null
  ip -n xlvs-mixed link set "$end" master "$4" up
  ip -n "$1" link set "$2" up
}

make_network() {
  local namespace bridge
  for namespace in xlvs-mixed xlvs-mixed-peer xlvs-mixed-client xlvs-mixed-server; do
    ip netns add "$namespace"
    ip -n "$namespace" link set lo up
  done
  for bridge in clients servers; do
    ip -n xlvs-mixed link add "$bridge" type bridge mcast_snooping 0
    ip -n xlvs-mixed link set "$bridge" up
    ip -n xlvs-mixed tuntap add dev "tap-$bridge" mode tap
    ip -n xlvs-mixed link set "tap-$bridge" master "$bridge" up
  done
  plug xlvs-mixed-peer eth0 "${XLVS[0]}" clients
  plug xlvs-mixed-peer eth1 "${XLVS[1]}" servers
  plug xlvs-mixed-client eth0 02:00:00:00:0c:64 clients
  plug xlvs-mixed-server eth0 02:00:00:00:05:21 servers
  ip -n xlvs-mixed-peer addr add 10.10.1.2/24 dev eth0
  ip -n xlvs-mixed-peer addr add 10.10.1.30/32 dev eth0
  ip -n xlvs-mixed-peer addr add 10.8.8.2/24 dev eth1
  ip netns exec xlvs-mixed-peer sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.{all,eth0,eth1}.rp_filter=0
  ip -n xlvs-mixed-client addr add 10.10.1.100/24 dev eth0
  ip -n xlvs-mixed-server addr add 10.8.8.33/24 dev eth0
  ip -n xlvs-mixed-server route add default via 10.8.8.1
  ip -n xlvs-mixed-peer neigh add 10.10.1.100 lladdr 02:00:00:00:0c:64 dev eth0
  ip -n xlvs-mixed-peer neigh add 10.8.8.33 lladdr 02:00:00:00:05:21 dev eth1
}

# pass_by MAC_OF_CLIENTS_SIDE MAC_OF_SERVERS_SIDE: which router has the virtual address and is the servers' gateway.
pass_by() {
  ip -n xlvs-mixed-client neigh replace 10.10.1.30 lladdr "$1" dev eth0 nud permanent
  ip -n xlvs-mixed-server neigh replace 10.8.8.1 lladdr "$2" dev eth0 nud permanent
}

boot() {
  local share=$RUN/share modules=$UML/usr/lib/uml/modules
  mkdir "$share"
  [[ -x $UML/usr/bin/linux.uml && -d $modules ]] || die "$UML has no user-mode-linux, see --help"
  spawn xlvs-mixed guest "$UML/usr/bin/linux.uml" mem=256M rootfstype=hostfs rootflags=/ ro quiet umid=xlvs \
    "uml_dir=$RUN" "init=$HERE/guest/uml-init" con=null con0=null,fd:1 ssl=null \
    "eth0=tuntap,tap-clients,${KERNEL[0]}" "eth1=tuntap,tap-servers,${KERNEL[1]}" \
    "xlvs.share=$share" "xlvs.modules=$modules"
  within 60 test -e "$share/up" || { cat "$RUN/guest.log" && die 'the guest does not come up'; }
}

answers() {
  xlvs status >/dev/null 2>&1
}

# guest COMMAND: in a shell of the guest's.
guest() {
  local file=$RUN/share/$((++commands))
  echo "$1" >"$file.part"
  mv "$file.part" "$file.command"
  within 30 test -e "$file.code" || die "the guest does not answer: $1"
  cat "$file.output"
  [[ $(<"$file.code") = 0 ]] || die "in the guest: $1"
}

serve() {
  printf 'pid %s/nginx.pid;\nevents {}\nhttp { access_log off; server { listen 8080; keepalive_timeout 600; return 200 "ok"; } }\n' \
    "$RUN" >"$RUN/nginx.conf"
  spawn xlvs-mixed-server web nginx -g 'daemon off; error_log stderr;' -p "$RUN" -c "$RUN/nginx.conf"
  printf '*mangle\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n' | tee "$RUN/iptables" >"$RUN/ip6tables"
  printf 'ports = ["eth0", "eth1"]\ncontrol_socket = "%s"\nshortcut = false\n' "$XLVS_SOCKET" >"$RUN/xlvs.toml"
  spawn xlvs-mixed-peer xlvs xlvs run --bare --marks "$RUN/iptables" --marks6 "$RUN/ip6tables" \
    --settings "$RUN/xlvs.toml"
  within 10 answers || { cat "$RUN/xlvs.log" && die 'the daemon does not come up'; }
  bash -c "$SERVICE"
}

# Opens the connections, asks on each, waits to be told of the takeover, and asks again; says how many have broken.
client() {
  local -a connections
  local number connection broken=0
  ask() {
    local line
    printf 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' >&"$1" || return
    while IFS= read -r -t 5 -u "$1" line; do
      [[ $line != $'\r' ]] || { read -r -t 5 -N 2 -u "$1" line && [[ $line = ok ]] && return; }
    done
    return 1
  }
  for ((number = 0; number < $1; number++)); do
    exec {connection}<>/dev/tcp/10.10.1.30/80
    connections[number]=$connection
    for _ in 1 2 3 4; do ask "$connection"; done
  done
  : >"$2/ready"
  until [[ -e $2/taken ]]; do sleep 0.1; done
  for number in "${!connections[@]}"; do
    ask "${connections[number]}" 2>/dev/null || ((++broken))
  done
  echo "$broken"
}

# take_over NAME FROM... TO...: by the MACs of both routers.
take_over() {
  rm -f "$RUN/ready" "$RUN/taken" "$RUN/broken"
  pass_by "$2" "$3"
  ip netns exec xlvs-mixed-client bash -ec "$(declare -f client); client $CONNECTIONS $RUN" >"$RUN/broken" &
  local client=$!
  within 60 test -e "$RUN/ready" || die "$1: the connections do not come about"
  # A message may wait for three seconds.
  sleep 4
  pass_by "$4" "$5"
  : >"$RUN/taken"
  wait "$client" || die "$1: the client failed"
  printf 'mixed: %s: %s of %s connections broken\n' "$1" "$(<"$RUN/broken")" "$CONNECTIONS"
  [[ $(<"$RUN/broken") = 0 ]]
}

((EUID == 0)) || die 'network namespaces need root'
trap clean_up EXIT
make_network
boot
serve
guest "$SERVICE && ip neigh add 10.10.1.100 lladdr 02:00:00:00:0c:64 dev eth0 && ip neigh add 10.8.8.33 lladdr 02:00:00:00:05:21 dev eth1"
guest "ipvsadm --start-daemon master $SYNC"
# shellcheck disable=SC2086
ipvsadm --start-daemon backup $SYNC
take_over 'Linux active, xlvs takes over' "${KERNEL[@]}" "${XLVS[@]}"
guest "ipvsadm --stop-daemon master && ipvsadm --start-daemon backup $SYNC"
ipvsadm --stop-daemon backup
# shellcheck disable=SC2086
ipvsadm --start-daemon master $SYNC
take_over 'xlvs active, Linux takes over' "${XLVS[@]}" "${KERNEL[@]}"
