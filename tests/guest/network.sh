# shellcheck shell=bash
# In the guest: a client, a router and a namespace of servers, on devices of several kinds. FRONT and BACK are then the
# router's devices towards client and servers.
#
#   xlvs-client 10.10.1.100 …  — FRONT xlvs-router BACK —  xlvs-servers 10.8.8.33, 10.8.8.34
#   a VIP of 10.10.1.30

NAMESPACES=(xlvs-client xlvs-router xlvs-servers)

make_namespaces() {
  local namespace
  for namespace in "${NAMESPACES[@]}"; do
    ip netns add "$namespace"
    ip netns exec "$namespace" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip -n "$namespace" link set lo up
  done
  ip netns exec xlvs-router sysctl -qw net.ipv4.ip_forward=1
}

# A namespace that ends gives its cards back to the first one, a moment later.
remove_network() {
  local namespace
  for namespace in "${NAMESPACES[@]}"; do
    [[ ! -e /run/netns/$namespace ]] || ip netns del "$namespace"
  done
  within 5 cards_back
}

cards_back() {
  local card
  for card in card{0..1}{a,b}; do
    [[ -e /sys/class/net/$card ]] || return 1
  done
}

# take CARD NAMESPACE: it comes with the MTU that the case is about, and otherwise as a new one.
take() {
  ethtool -K "$1" gro on rx-gro-hw on
  ethtool --set-channels "$1" combined "$QUEUES" 2>/dev/null || true
  ip link set "$1" netns "$2"
  ip -n "$2" link set "$1" mtu "$MTU" up
}

on_cards() {
  take card0a xlvs-client
  take card0b xlvs-router
  take card1b xlvs-router
  take card1a xlvs-servers
  CLIENT_DEVICE=card0a FRONT=card0b BACK=card1b SERVERS_DEVICE=card1a
}

# tag NAMESPACE CARD VLAN
tag() {
  ip -n "$1" link add link "$2" name "$2.$3" type vlan id "$3"
  ip -n "$1" link set "$2.$3" up
}

on_vlans() {
  on_cards
  tag xlvs-client card0a 7
  tag xlvs-router card0b 7
  tag xlvs-router card1b 8
  tag xlvs-servers card1a 8
  CLIENT_DEVICE=card0a.7 FRONT=card0b.7 BACK=card1b.8 SERVERS_DEVICE=card1a.8
}

# The same, but the cards themselves are served.
on_trunks() {
  on_vlans
  # shellcheck disable=SC2034 # of the script that sources this
  FRONT_CARD=card0b BACK_CARD=card1b
}

# bond NAMESPACE NAME MEMBER...: one of them carries all, until its link is gone.
bond() {
  local namespace=$1 name=$2 member
  shift 2
  ip -n "$namespace" link add "$name" type bond mode active-backup miimon 50
  for member; do
    ip -n "$namespace" link set "$member" down
    ip -n "$namespace" link set "$member" master "$name"
  done
  ip -n "$namespace" link set "$name" up
}

# Both ends of a cable lose their link together, which the cards' do not.
on_bonds() {
  take card1b xlvs-router
  take card1a xlvs-servers
  local number
  for number in 0 1; do
    ip -n xlvs-router link add "member$number" type veth peer name "member$number" netns xlvs-client
    ip netns exec xlvs-client ethtool -K "member$number" tx off >/dev/null
  done
  bond xlvs-client bond0 member0 member1
  bond xlvs-router bond0 member0 member1
  CLIENT_DEVICE=bond0 FRONT=bond0 BACK=card1b SERVERS_DEVICE=card1a
}

give_addresses() {
  ip -n xlvs-client addr add 10.10.1.100/24 dev "$CLIENT_DEVICE"
  ip -n xlvs-router addr add 10.10.1.31/24 dev "$FRONT"
  ip -n xlvs-router addr add "$VIP/32" dev "$FRONT"
  ip -n xlvs-router addr add 10.8.8.30/24 dev "$BACK"
  ip -n xlvs-servers addr add 10.8.8.33/24 dev "$SERVERS_DEVICE"
  ip -n xlvs-servers addr add 10.8.8.34/24 dev "$SERVERS_DEVICE"
  ip -n xlvs-servers route add default via 10.8.8.30
}

# build_network DEVICES [MTU]: such as cards, vlans, bonds.
build_network() {
  MTU=${2-1500}
  make_namespaces
  "on_$1"
  give_addresses
}
