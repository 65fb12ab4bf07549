// SPDX-License-Identifier: Apache-2.0
// Steering only: a packet that may concern a virtual service goes to the AF_XDP socket of its receive queue, all else to
// the kernel. Steering too much is safe, because user space hands back what it does not want; steering too little is not.

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include "bpf_call.h"

#define MAX_RANGES 16
#define MAX_PORTS 256
#define MAX_VLAN_TAGS 2
#define IPV4_FRAGMENT 0x3fff // more fragments, or an offset
#define ICMP_HEADER_LENGTH 8
// Ethernet with two tags, two of the longest IPv4 headers, an ICMP header and the quoted ports.
#define HEADERS_LENGTH 148

// The errors that IPVS relates to a connection (RFC 792); <linux/icmp.h> would need the C library of a 32-bit host.
enum icmpv4_error { DESTINATION_UNREACHABLE = 3, SOURCE_QUENCH = 4, TIME_EXCEEDED = 11 };

// The ICMPv6 errors (RFC 4443): 1 destination unreachable, 2 packet too big, 3 time exceeded, 4 parameter problem.
enum icmpv6_error { FIRST_ICMPV6_ERROR = 1, LAST_ICMPV6_ERROR = 4 };

typedef _Bool bool;

// IPv4 is held as ::ffff:a.b.c.d, so that one table serves both families. Network byte order.
struct address {
	__u32 words[4];
};

struct prefix {
	__u32 length;
	struct address address;
};

// Ports of one protocol in host byte order, both ends included; protocol 0 is any.
struct range {
	__u16 low;
	__u16 high;
	__u8 protocol;
	__u8 unused;
};

struct ranges {
	__u32 count;
	struct range list[MAX_RANGES];
};

// Where the sockets of one interface lie in `sockets`.
struct port {
	__u32 first;
	__u32 queues;
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_XSKMAP);
	MAP_NUMBER(max_entries, MAX_PORTS);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} sockets SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, MAX_PORTS);
	MAP_TYPE(key, __u32); // interface index
	MAP_TYPE(value, struct port);
} ports SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	MAP_NUMBER(max_entries, 65536);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct prefix);
	MAP_TYPE(value, struct ranges);
} destinations SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, 65536);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct address);
	MAP_TYPE(value, struct ranges);
} servers SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, 65536);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct address);
	MAP_TYPE(value, __u8);
} own SEC(".maps");

// Where what this machine sends as a real server leaves an interface instead: both are interface indexes.
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, MAX_PORTS);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} detours SEC(".maps");

// What user space puts before a frame that it gives back to an interface in generic mode, where the frame comes by here
// a second time: an Ethernet header of type ETH_P_LOCAL and a secret. The original frame follows.
#define ETH_P_LOCAL 0x88b5 // IEEE 802 local experimental

struct envelope {
	struct ethhdr ethernet;
	__u16 unused;
	__u64 secret[2];
} __attribute__((packed));

const volatile __u64 envelope_secret[2];

struct packet {
	struct address source;
	struct address destination;
	void *payload;
	__u16 source_port; // host byte order; 0 where the protocol has none
	__u16 destination_port;
	__u8 protocol;
	bool fragment;
};

INLINE void map_ipv4(struct address *address, __u32 ipv4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = NET32(0xffff);
	address->words[3] = ipv4;
}

INLINE bool parse_ipv4(struct packet *packet, void *at, void *end)
{
	struct iphdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return 0;
	map_ipv4(&packet->source, ip->saddr);
	map_ipv4(&packet->destination, ip->daddr);
	packet->protocol = ip->protocol;
	packet->fragment = (ip->frag_off & NET16(IPV4_FRAGMENT)) != 0;
	packet->payload = at + ip->ihl * 4;
	return 1;
}

INLINE bool parse_ipv6(struct packet *packet, void *at, void *end)
{
	struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return 0;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	packet->protocol = ip->nexthdr;
	packet->fragment = ip->nexthdr == IPPROTO_FRAGMENT;
	packet->payload = ip + 1;
	if (packet->fragment) { // RFC 8200 section 4.5: the first byte of the fragment header is the next header
		if (packet->payload + 8 > end)
			return 0;
		packet->protocol = *(__u8 *)packet->payload;
	}
	return 1;
}

INLINE bool parse_ip(struct packet *packet, __u16 ether_type, void *at, void *end)
{
	if (ether_type == NET16(ETH_P_IP))
		return parse_ipv4(packet, at, end);
	if (ether_type == NET16(ETH_P_IPV6))
		return parse_ipv6(packet, at, end);
	return 0;
}

INLINE bool is_vlan_tag(__u16 ether_type)
{
	return ether_type == NET16(ETH_P_8021Q) || ether_type == NET16(ETH_P_8021AD);
}

INLINE bool parse_frame(struct packet *packet, void *at, void *end)
{
	struct ethhdr *ethernet = at;
	__u16 ether_type;

	if ((void *)(ethernet + 1) > end)
		return 0;
	ether_type = ethernet->h_proto;
	at = ethernet + 1;
#pragma unroll
	for (int tag = 0; tag < MAX_VLAN_TAGS; tag++) {
		if (!is_vlan_tag(ether_type))
			break;
		if (at + 4 > end)
			return 0;
		ether_type = *(__u16 *)(at + 2);
		at += 4;
	}
	return parse_ip(packet, ether_type, at, end);
}

INLINE bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

INLINE bool is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

INLINE bool parse_ports(struct packet *packet, void *end)
{
	__u16 *at = packet->payload;

	packet->source_port = 0;
	packet->destination_port = 0;
	if (!has_ports(packet->protocol))
		return 1;
	if ((void *)(at + 2) > end)
		return 0;
	packet->source_port = NET16(at[0]);
	packet->destination_port = NET16(at[1]);
	return 1;
}

// Whether `ranges` has the port, or with `any_port` the protocol.
INLINE bool contains(const struct ranges *ranges, __u8 protocol, __u16 port, bool any_port)
{
	if (!ranges)
		return 0;
	for (__u32 i = 0; i < MAX_RANGES; i++) {
		const struct range *range = &ranges->list[i];

		if (i >= ranges->count)
			return 0;
		if (range->protocol != 0 && range->protocol != protocol)
			continue;
		if (any_port || (range->low <= port && port <= range->high))
			return 1;
	}
	return 0;
}

INLINE struct ranges *ranges_of_destination(const struct address *address)
{
	struct prefix key = { .length = 128, .address = *address };

	return bpf_map_lookup_elem(&destinations, &key);
}

INLINE bool to_destination(const struct packet *packet)
{
	return contains(ranges_of_destination(&packet->destination), packet->protocol,
			packet->destination_port, packet->fragment);
}

INLINE bool is_own(const struct address *address)
{
	return bpf_map_lookup_elem(&own, address) != 0;
}

// What a real server sends to this machine itself answers a health check.
INLINE bool from_server(const struct packet *packet)
{
	return contains(bpf_map_lookup_elem(&servers, &packet->source), packet->protocol, packet->source_port,
			packet->fragment) &&
	       !is_own(&packet->destination);
}

INLINE bool same_address(const struct address *a, const struct address *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2] &&
	       a->words[3] == b->words[3];
}

INLINE bool is_icmp_error(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == DESTINATION_UNREACHABLE || type == SOURCE_QUENCH || type == TIME_EXCEEDED;
	return type >= FIRST_ICMPV6_ERROR && type <= LAST_ICMPV6_ERROR;
}

// What may carry a packet to a real server through a tunnel: this machine sends that itself and gets the errors about it.
INLINE bool may_be_tunnel(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE || protocol == IPPROTO_UDP;
}

// A client's side complains about what the service sent, or anyone about what was sent to a real server.
INLINE bool about_balanced_flow(const struct packet *packet, const struct packet *quoted)
{
	if (same_address(&packet->destination, &quoted->source) &&
	    contains(ranges_of_destination(&quoted->source), quoted->protocol, quoted->source_port, 0))
		return 1;
	if (is_own(&packet->destination) && !may_be_tunnel(quoted->protocol))
		return 0;
	// With direct routing a server gets, and complains about, packets to the virtual address.
	return contains(bpf_map_lookup_elem(&servers, &quoted->destination), quoted->protocol,
			quoted->destination_port, 0) ||
	       contains(ranges_of_destination(&quoted->destination), quoted->protocol, quoted->destination_port, 0);
}

// Whether the packet is an ICMP error about a flow with ports; `quoted` is the packet that it quotes.
INLINE bool parse_error(const struct packet *packet, struct packet *quoted, void *end)
{
	__u8 *icmp = packet->payload;
	__u16 ether_type = packet->protocol == IPPROTO_ICMP ? NET16(ETH_P_IP) : NET16(ETH_P_IPV6);

	if ((void *)icmp + ICMP_HEADER_LENGTH > end || !is_icmp_error(packet->protocol, icmp[0]))
		return 0;
	if (!parse_ip(quoted, ether_type, (void *)icmp + ICMP_HEADER_LENGTH, end) || quoted->fragment || is_icmp(quoted->protocol))
		return 0;
	return parse_ports(quoted, end);
}

INLINE bool is_steered_error(const struct packet *packet, void *end)
{
	struct packet quoted = {};

	return parse_error(packet, &quoted, end) && about_balanced_flow(packet, &quoted);
}

INLINE bool is_steered(struct packet *packet, void *end)
{
	if (is_icmp(packet->protocol))
		return !packet->fragment && is_steered_error(packet, end);
	// Only a first fragment has ports, and its followers must go the same way.
	if (!packet->fragment && !parse_ports(packet, end))
		return 0;
	return to_destination(packet) || from_server(packet);
}

INLINE int redirect(struct xdp_md *ctx)
{
	__u32 interface = ctx->ingress_ifindex;
	__u32 queue = ctx->rx_queue_index;
	struct port *port = bpf_map_lookup_elem(&ports, &interface);

	if (!port || queue >= port->queues)
		return XDP_PASS;
	return bpf_redirect_map(&sockets, port->first + queue, XDP_PASS);
}

INLINE bool is_envelope(void *at, void *end)
{
	struct envelope *envelope = at;

	return (void *)(envelope + 1) <= end && envelope->ethernet.h_proto == NET16(ETH_P_LOCAL) &&
	       envelope->secret[0] == envelope_secret[0] && envelope->secret[1] == envelope_secret[1];
}

SEC("xdp") int xlvs_steer(struct xdp_md *ctx)
{
	void *at = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct packet packet = {};

	if (is_envelope(at, end))
		return bpf_xdp_adjust_head(ctx, sizeof(struct envelope)) == 0 ? XDP_PASS : XDP_DROP;
	if (parse_frame(&packet, at, end) && is_steered(&packet, end))
		return redirect(ctx);
	return XDP_PASS;
}

// This machine complains about what was sent to a real server that it is itself.
INLINE bool is_own_servers_error(const struct packet *packet, void *end)
{
	struct packet quoted = {};

	return parse_error(packet, &quoted, end) && is_own(&quoted.destination) &&
	       contains(bpf_map_lookup_elem(&servers, &quoted.destination), quoted.protocol, quoted.destination_port, 0);
}

INLINE bool is_own_servers_packet(struct packet *packet, void *end)
{
	if (is_icmp(packet->protocol))
		return !packet->fragment && is_own_servers_error(packet, end);
	if (!is_own(&packet->source) || (!packet->fragment && !parse_ports(packet, end)))
		return 0;
	return contains(bpf_map_lookup_elem(&servers, &packet->source), packet->protocol, packet->source_port,
			packet->fragment);
}

// At an interface's way out: what this machine sends as a real server makes a detour by user space. The detour is a TAP
// device that ends with its process; a redirection to nowhere fails, and the packet leaves as without us.
SEC("classifier") int xlvs_detour(struct __sk_buff *skb)
{
	__u32 interface = skb->ifindex;
	__u32 *detour = bpf_map_lookup_elem(&detours, &interface);
	struct packet packet = {};

	if (!detour)
		return TC_ACT_UNSPEC;
	if (skb->data_end - skb->data < HEADERS_LENGTH)
		bpf_skb_pull_data(skb, skb->len < HEADERS_LENGTH ? skb->len : HEADERS_LENGTH);
	if (!parse_frame(&packet, (void *)(long)skb->data, (void *)(long)skb->data_end) ||
	    !is_own_servers_packet(&packet, (void *)(long)skb->data_end))
		return TC_ACT_UNSPEC;
	return bpf_clone_redirect(skb, *detour, 0) < 0 ? TC_ACT_UNSPEC : TC_ACT_STOLEN;
}

char program_license[] SEC("license") = "Apache-2.0";
