# shellcheck shell=bash
# Pairs of virtio network cards. Outside, each card is a TAP device, and what comes out of one is redirected into the other,
# in a namespace of its own; inside, the cards get their names back from their addresses.

# make_cards: the TAP devices of CARDS pairs. WITHIN_CARDS then begins a command where they are.
make_cards() {
  WITHIN_CARDS=()
  ((CARDS > 0)) || return 0
  CABLES=xlvs-guest-$$
  WITHIN_CARDS=(ip netns exec "$CABLES")
  ip netns add "$CABLES"
  local pair
  for ((pair = 0; pair < CARDS; pair++)); do
    make_tap "card${pair}a"
    make_tap "card${pair}b"
    redirect "card${pair}a" "card${pair}b"
    redirect "card${pair}b" "card${pair}a"
  done
}

make_tap() {
  local several=()
  ((QUEUES == 1)) || several=(multi_queue)
  ip -n "$CABLES" tuntap add dev "$1" mode tap "${several[@]}"
  "${WITHIN_CARDS[@]}" sysctl -qw "net.ipv6.conf.$1.disable_ipv6=1"
  ip -n "$CABLES" link set "$1" mtu 9000 up
}

redirect() {
  tc -n "$CABLES" qdisc add dev "$1" clsact
  tc -n "$CABLES" filter add dev "$1" ingress protocol all u32 match u32 0 0 action mirred egress redirect dev "$2"
}

remove_cards() {
  [[ -z ${CABLES-} ]] || ip netns del "$CABLES"
}

# card_arguments PAIR: adds QEMU's for both ends to MACHINE.
card_arguments() {
  local end device='' card='' number
  ((QUEUES == 1)) || device=,queues=$QUEUES card=,mq=on,vectors=$((2 * QUEUES + 2))
  for end in a b; do
    printf -v number '02:00:00:00:%02x:0%s' "$1" "$end"
    MACHINE+=(-netdev "tap,id=card$1$end,ifname=card$1$end,script=no,downscript=no,vhost=off$device"
      -device "virtio-net-pci,netdev=card$1$end,mac=$number,disable-legacy=on$card")
  done
}

# name_cards: in the guest; all queues are used.
name_cards() {
  modprobe virtio_net
  local directory address name
  for directory in /sys/class/net/eth*; do
    address=$(<"$directory/address")
    [[ $address == 02:00:00:00:* ]] || continue
    name=card$((16#${address:12:2}))${address:16:1}
    ip link set "${directory##*/}" name "$name"
    ((QUEUES == 1)) || ethtool --set-channels "$name" combined "$QUEUES"
  done
}
