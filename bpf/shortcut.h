// SPDX-License-Identifier: Apache-2.0
// The shortcut: plain packets of flows that user space has put in the tables are rewritten here and leave at once. What
// is not plain, or not quite as expected, goes up as if there were no shortcut.
#ifndef XLVS_SHORTCUT_H
#define XLVS_SHORTCUT_H

#include "packet.h"

#define MAX_FLOWS 262144 // user space sets the number
#define MAX_ACCOUNTS 8192 // one a direction of a server
#define NOT_TAKEN -1
#define PLAIN_IPV4 0x45 // version 4, no options
#define IPV6_HEADER_LENGTH 40
#define TCP_HEADER_LENGTH 20
#define UDP_HEADER_LENGTH 8
#define TCP_FLAGS 13 // offsets in the header
#define TCP_CHECKSUM 16
#define UDP_CHECKSUM 6
#define TCP_FIN_SYN_RST_ACK 0x17
#define TCP_ACK 0x10

// All in network byte order, as in the packet.
struct flow_ipv4 {
	__u32 source;
	__u32 destination;
	__u32 ports; // the source's first
	__u32 protocol; // its number in host byte order
};

struct flow_ipv6 {
	struct address source;
	struct address destination;
	__u32 ports;
	__u32 protocol;
};

// What becomes of the packets of one direction of a flow. Changes and sums are ones' complement, folded, in network byte
// order.
struct shortcut {
	__u64 used; // when last, in nanoseconds of the coarse monotonic clock
	__u64 packets;
	__u32 generation;
	__u32 ingress; // the interface that the packets come by
	__u32 exit; // index in `exits`
	__u32 account; // index in `accounts`
	__u32 mtu; // of the way out
	__u32 address[4]; // the new one; of IPv4 the first word
	__u32 ethernet[3]; // hardware addresses of the way out: destination, source
	__u32 addressed_first; // our hardware address on the way in
	__u16 addressed_last;
	__u16 port; // the new one
	__u16 header_change; // of the IPv4 header's checksum, TTL included
	__u16 transport_change; // of the transport checksum
	__u16 pseudo_header; // sum of addresses and protocol, as they come
	__u8 at_source; // the end that is replaced
	__u8 in_parts; // whether the way out takes packets that lie in several buffers
};

struct traffic {
	__u64 packets;
	__u64 bytes;
	__u64 tick; // of the last packet
	__u64 time; // then, as in `used`
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, MAX_FLOWS);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct flow_ipv4);
	MAP_TYPE(value, struct shortcut);
} shortcuts_ipv4 SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, MAX_FLOWS);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct flow_ipv6);
	MAP_TYPE(value, struct shortcut);
} shortcuts_ipv6 SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_NUMBER(max_entries, MAX_ACCOUNTS);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct traffic);
} accounts SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_DEVMAP);
	MAP_NUMBER(max_entries, MAX_PORTS);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} exits SEC(".maps");

// Entries of any other generation count for nothing; 0 is none's.
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} generation SEC(".maps");

const volatile bool has_shortcut;

// A packet whose headers are all there.
struct plain {
	__u8 *data; // the frame
	__u8 *transport;
	__u16 *checksum; // of the transport
	__u32 generation; // the present one
	__u32 ip_length;
	__u32 transport_length;
	__u8 protocol;
	bool in_parts; // the packet lies in several buffers
};

// The ones' complement sum of two words.
INLINE __u16 sum(__u16 a, __u16 b)
{
	__u32 sum = (__u32)a + b;

	return (sum & 0xffff) + (sum >> 16);
}

// RFC 1624 equation 3.
INLINE __u16 changed(__u16 checksum, __u16 change)
{
	return ~sum(~checksum, change);
}

// Whether it is a segment or datagram that changes nothing but counters and timers. A UDP checksum of 0 has to become one.
INLINE bool is_plain(struct plain *plain, void *end)
{
	__u8 *transport = plain->transport;

	if (plain->protocol == IPPROTO_TCP) {
		if (plain->transport_length < TCP_HEADER_LENGTH || transport + TCP_HEADER_LENGTH > (__u8 *)end ||
		    (transport[TCP_FLAGS] & TCP_FIN_SYN_RST_ACK) != TCP_ACK)
			return 0;
		plain->checksum = (__u16 *)(transport + TCP_CHECKSUM);
		return 1;
	}
	if (plain->protocol != IPPROTO_UDP || plain->transport_length < UDP_HEADER_LENGTH ||
	    transport + UDP_HEADER_LENGTH > (__u8 *)end)
		return 0;
	plain->checksum = (__u16 *)(transport + UDP_CHECKSUM);
	return *plain->checksum != 0;
}

// Whether the entry is about this packet as it has come. A sender behind a veth may leave the checksum half-made: then it
// is the pseudo header's sum.
INLINE bool applies(const struct shortcut *shortcut, const struct plain *plain, __u32 ingress)
{
	return shortcut->generation == plain->generation && shortcut->ingress == ingress &&
	       shortcut->addressed_first == *(const __u32 *)plain->data &&
	       shortcut->addressed_last == *(const __u16 *)(plain->data + 4) && plain->ip_length <= shortcut->mtu &&
	       (!plain->in_parts || shortcut->in_parts) &&
	       *plain->checksum != sum(shortcut->pseudo_header, NET16(plain->transport_length));
}

INLINE void account(struct shortcut *shortcut, const struct plain *plain)
{
	struct traffic *traffic = bpf_map_lookup_elem(&accounts, &shortcut->account);
	__u64 tick = bpf_jiffies64();

	if (!traffic)
		return;
	// The coarse clock goes on with the ticks, and a tick is far cheaper to have.
	if (traffic->tick != tick) {
		traffic->tick = tick;
		traffic->time = bpf_ktime_get_coarse_ns();
	}
	shortcut->used = traffic->time;
	shortcut->packets++;
	traffic->packets++;
	traffic->bytes += plain->ip_length;
}

INLINE void rewrite(const struct shortcut *shortcut, struct plain *plain)
{
	__u16 checksum = changed(*plain->checksum, shortcut->transport_change);
	__u32 *ethernet = (__u32 *)plain->data;

	*plain->checksum = checksum == 0 && plain->protocol == IPPROTO_UDP ? 0xffff : checksum;
	((__u16 *)plain->transport)[shortcut->at_source ? 0 : 1] = shortcut->port;
	ethernet[0] = shortcut->ethernet[0];
	ethernet[1] = shortcut->ethernet[1];
	ethernet[2] = shortcut->ethernet[2];
}

// Sends the packet on its way, without padding of the way in.
INLINE int leave(struct xdp_md *ctx, const struct shortcut *shortcut, __u32 frame_length, __u32 ip_length)
{
	if (frame_length > sizeof(struct ethhdr) + ip_length)
		bpf_xdp_adjust_tail(ctx, (int)(sizeof(struct ethhdr) + ip_length - frame_length));
	return bpf_redirect_map(&exits, shortcut->exit, 0);
}

INLINE bool is_right_header(const __u32 *ip)
{
	__u64 sum = (__u64)ip[0] + ip[1] + ip[2] + ip[3] + ip[4];

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

// Length of the whole packet; `parts` is whether it may lie in several buffers.
INLINE __u32 length_of(struct xdp_md *ctx, bool parts)
{
	return parts ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data;
}

INLINE int take_ipv4(struct xdp_md *ctx, __u32 generation, bool parts)
{
	__u8 *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = (void *)(data + sizeof(struct ethhdr));
	__u32 length = length_of(ctx, parts);
	struct plain plain = { .data = data, .transport = (void *)(ip + 1), .generation = generation };
	struct shortcut *shortcut;
	struct flow_ipv4 flow;

	if (plain.transport + UDP_HEADER_LENGTH > (__u8 *)end || *(__u8 *)ip != PLAIN_IPV4 ||
	    (ip->frag_off & NET16(IPV4_FRAGMENT)) || ip->ttl <= 1)
		return NOT_TAKEN;
	plain.in_parts = parts && length > (__u64)((__u8 *)end - data);
	plain.protocol = ip->protocol;
	plain.ip_length = NET16(ip->tot_len);
	plain.transport_length = plain.ip_length - sizeof(*ip);
	if (plain.ip_length < sizeof(*ip) || sizeof(struct ethhdr) + plain.ip_length > length || !is_plain(&plain, end))
		return NOT_TAKEN;
	flow = (struct flow_ipv4){
		.source = ip->saddr, .destination = ip->daddr, .ports = *(__u32 *)plain.transport, .protocol = plain.protocol
	};
	shortcut = bpf_map_lookup_elem(&shortcuts_ipv4, &flow);
	if (!shortcut || !applies(shortcut, &plain, ctx->ingress_ifindex) || !is_right_header((__u32 *)ip))
		return NOT_TAKEN;
	account(shortcut, &plain);
	rewrite(shortcut, &plain);
	ip->check = changed(ip->check, shortcut->header_change);
	ip->ttl--;
	if (shortcut->at_source)
		ip->saddr = shortcut->address[0];
	else
		ip->daddr = shortcut->address[0];
	return leave(ctx, shortcut, length, plain.ip_length);
}

INLINE int take_ipv6(struct xdp_md *ctx, __u32 generation, bool parts)
{
	__u8 *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = (void *)(data + sizeof(struct ethhdr));
	__u32 length = length_of(ctx, parts);
	struct plain plain = { .data = data, .transport = (void *)(ip + 1), .generation = generation };
	struct shortcut *shortcut;
	struct flow_ipv6 flow;

	if (plain.transport + UDP_HEADER_LENGTH > (__u8 *)end || ip->version != 6 || ip->hop_limit <= 1)
		return NOT_TAKEN;
	plain.in_parts = parts && length > (__u64)((__u8 *)end - data);
	plain.protocol = ip->nexthdr;
	plain.transport_length = NET16(ip->payload_len);
	plain.ip_length = plain.transport_length + sizeof(*ip);
	if (sizeof(struct ethhdr) + plain.ip_length > length || !is_plain(&plain, end))
		return NOT_TAKEN;
	__builtin_memcpy(&flow.source, &ip->saddr, sizeof(flow.source));
	__builtin_memcpy(&flow.destination, &ip->daddr, sizeof(flow.destination));
	flow.ports = *(__u32 *)plain.transport;
	flow.protocol = plain.protocol;
	shortcut = bpf_map_lookup_elem(&shortcuts_ipv6, &flow);
	if (!shortcut || !applies(shortcut, &plain, ctx->ingress_ifindex))
		return NOT_TAKEN;
	account(shortcut, &plain);
	rewrite(shortcut, &plain);
	ip->hop_limit--;
	__builtin_memcpy(shortcut->at_source ? &ip->saddr : &ip->daddr, shortcut->address, sizeof(shortcut->address));
	return leave(ctx, shortcut, length, plain.ip_length);
}

// The action for a packet that the shortcut takes, or NOT_TAKEN.
INLINE int take_shortcut(struct xdp_md *ctx, bool parts)
{
	__u16 *ethernet = (void *)(long)ctx->data;
	__u32 *current;
	__u32 zero = 0;

	if (!has_shortcut || (void *)(ethernet + 7) > (void *)(long)ctx->data_end)
		return NOT_TAKEN;
	current = bpf_map_lookup_elem(&generation, &zero);
	if (!current || *current == 0)
		return NOT_TAKEN;
	if (ethernet[6] == NET16(ETH_P_IP))
		return take_ipv4(ctx, *current, parts);
	if (ethernet[6] == NET16(ETH_P_IPV6))
		return take_ipv6(ctx, *current, parts);
	return NOT_TAKEN;
}

#endif
