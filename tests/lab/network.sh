# shellcheck shell=bash
# The lab's wires, in namespaces:
#
#   xlvs-client                xlvs-router                  xlvs-switch        xlvs-lvs-03   10.8.8.33
#   10.10.1.100 … .139  eth0 — eth0 10.10.1.31
#                              eth1 10.8.8.1              — bridge —           xlvs-lvs-04   10.8.8.34
#
# The VIP 10.10.1.30 and the servers' gateway 10.8.8.30 are for the daemon in xlvs-router to put up. Nothing here
# needs a name server.

NAMESPACES=(xlvs-client xlvs-router xlvs-switch xlvs-lvs-03 xlvs-lvs-04)
CLIENTS=()
for host in {100..139}; do CLIENTS+=("10.10.1.$host"); done

make_namespaces() {
  local namespace
  for namespace in "${NAMESPACES[@]}"; do
    ip netns add "$namespace"
    ip netns exec "$namespace" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip -n "$namespace" link set lo up
  done
}

# A veth hands its peer checksums half-made unless told to complete them. An end host's frames shall look as they
# would on a wire.
complete_checksums() {
  ip netns exec "$1" ethtool -K eth0 tx off >/dev/null
}

connect_client() {
  ip -n xlvs-router link add eth0 type veth peer name eth0 netns xlvs-client
  complete_checksums xlvs-client
  printf 'addr add %s/24 dev eth0\n' "${CLIENTS[@]}" | ip -n xlvs-client -batch -
  ip -n xlvs-client link set eth0 up
}

# plug NAMESPACE INTERFACE: a cable to the switch.
plug() {
  local port=${1#xlvs-}
  ip -n "$1" link add "$2" type veth peer name "$port" netns xlvs-switch
  ip -n xlvs-switch link set "$port" master bridge up
}

connect_server() {
  plug "$1" eth0
  complete_checksums "$1"
  ip -n "$1" addr add "$2/24" dev eth0
  ip -n "$1" link set eth0 up
  ip -n "$1" route add default via 10.8.8.30
}

start_router() {
  plug xlvs-router eth1
  ip -n xlvs-router -batch - <<'BATCH'
addr add 10.10.1.31/24 dev eth0
addr add 10.8.8.1/24 dev eth1
link set eth0 up
link set eth1 up
BATCH
  ip netns exec xlvs-router sysctl -qw net.ipv4.ip_forward=1
}

build_network() {
  make_namespaces
  ip -n xlvs-switch link add bridge type bridge forward_delay 0
  ip -n xlvs-switch link set bridge up
  connect_client
  start_router
  connect_server xlvs-lvs-03 10.8.8.33
  connect_server xlvs-lvs-04 10.8.8.34
}

remove_network() {
  local namespace
  for namespace in "${NAMESPACES[@]}"; do
    [[ ! -e /run/netns/$namespace ]] || ip netns del "$namespace"
  done
}
