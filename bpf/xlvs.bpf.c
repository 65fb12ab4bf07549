// SPDX-License-Identifier: Apache-2.0
// Steering: a packet that may concern a virtual service goes to the AF_XDP socket of its receive queue, all else to
// the kernel. Steering too much is safe, because user space hands back what it does not want; steering too little is not.

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include "bpf_call.h"
#include "packet.h"
#include "front.h"
#include "shortcut.h"

#define MAX_RANGES 16
#define MAX_ADDRESSES 262144 // what is not used takes little
#define MAX_VLAN_TAGS 2
#define MAX_EXTENSIONS 8 // HEADERS_MAX of user space, which refuses longer chains
#define MAX_OFFSET 0x7fff // beyond all headers at their longest, for the verifier
#define IPV4_OFFSET 0x1fff
#define IPV6_FRAGMENT 0xfff9 // the same of IPv6 (RFC 8200 section 4.5)
#define IPV6_OFFSET 0xfff8
#define ICMP_HEADER_LENGTH 8
// Ethernet with two tags, two of the longest IPv4 headers, an ICMP header and the quoted ports; IPv6 with extension headers
// of usual lengths.
#define HEADERS_LENGTH 256
#define HEADER_WORDS 5 // the longest header that is read at once, IPv6's, in words of 8 bytes
#define KEY_EXCHANGE_PORT 500 // of UDP (RFC 7296)

// The errors that IPVS relates to a connection (RFC 792); <linux/icmp.h> would need the C library of a 32-bit host.
enum icmpv4_error { DESTINATION_UNREACHABLE = 3, SOURCE_QUENCH = 4, TIME_EXCEEDED = 11 };

// ICMPv6 types with this bit are no errors (RFC 4443 section 2.1).
#define ICMPV6_INFORMATIONAL 0x80

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
	MAP_NUMBER(max_entries, MAX_ADDRESSES);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct prefix);
	MAP_TYPE(value, struct ranges);
} destinations SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, MAX_ADDRESSES);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct address);
	MAP_TYPE(value, struct ranges);
} servers SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, MAX_ADDRESSES);
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
	__u32 payload; // offset in the frame
	__u16 source_port; // host byte order; 0 where the protocol has none
	__u16 destination_port;
	__u8 protocol; // as all fragments of the packet can tell it
	__u8 transport; // as the one with the transport header tells it
	bool fragment;
	bool later; // a fragment without the transport header
	bool any_port;
	bool any_protocol;
};

// A frame as one of the programs knows it. `skb` says which type `context` has, and `parts` whether the frame may lie in
// several buffers; both are constants wherever they are used.
struct frame {
	void *context;
	bool skb;
	bool parts;
	void *copy; // where headers go that do not lie in the first buffer
};

INLINE void *start(struct frame frame)
{
	return frame.skb ? (void *)(long)((struct __sk_buff *)frame.context)->data :
			   (void *)(long)((struct xdp_md *)frame.context)->data;
}

INLINE void *end(struct frame frame)
{
	return frame.skb ? (void *)(long)((struct __sk_buff *)frame.context)->data_end :
			   (void *)(long)((struct xdp_md *)frame.context)->data_end;
}

// Bytes of the frame, or none where it is shorter; good until the next ones are asked for. At most a header's.
INLINE void *bytes(struct frame frame, __u32 offset, __u32 length)
{
	void *at = start(frame) + (offset & MAX_OFFSET);

	if (at + length <= end(frame))
		return at;
	if (!frame.parts || bpf_xdp_load_bytes(frame.context, offset & MAX_OFFSET, frame.copy, length) < 0)
		return 0;
	return frame.copy;
}

INLINE void map_ipv4(struct address *address, __u32 ipv4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = NET32(0xffff);
	address->words[3] = ipv4;
}

INLINE bool parse_ipv4(struct packet *packet, struct frame frame, __u32 offset)
{
	struct iphdr *ip = bytes(frame, offset, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return 0;
	map_ipv4(&packet->source, ip->saddr);
	map_ipv4(&packet->destination, ip->daddr);
	packet->protocol = packet->transport = ip->protocol;
	packet->fragment = (ip->frag_off & NET16(IPV4_FRAGMENT)) != 0;
	packet->later = (ip->frag_off & NET16(IPV4_OFFSET)) != 0;
	packet->payload = offset + ip->ihl * 4;
	return 1;
}

// The headers that IPVS looks behind; AH is one of them in IPv6 only.
INLINE bool is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT || next == IPPROTO_AH ||
	       next == IPPROTO_DSTOPTS;
}

// Bytes of an extension header (RFC 8200 section 4, RFC 4302 section 2.2).
INLINE __u32 extension_length(__u8 kind, __u8 length)
{
	if (kind == IPPROTO_FRAGMENT)
		return 8;
	if (kind == IPPROTO_AH)
		return (length + 2) * 4;
	return (length + 1) * 8;
}

// How far the chain of an IPv6 packet's headers has been followed. One word, because that is what a function that the
// verifier looks at once for all its calls can return.
union chain {
	__u64 word;
	struct {
		__u16 offset; // in the frame
		__u8 kind; // of the header there
		__u8 fragmented; // kind of what was cut in fragments
		bool fragment;
		bool later;
		bool cut; // the frame ends within a header
	};
};

// The chain one extension header further, or as it is where it ends.
INLINE __u64 follow(struct frame frame, __u64 word)
{
	union chain chain = { .word = word };
	__u8 *header;
	__u16 field;

	if (!is_extension(chain.kind) || chain.later || chain.cut)
		return word;
	header = bytes(frame, chain.offset, 8);
	if (!header) {
		chain.cut = 1;
		return chain.word;
	}
	field = *(__u16 *)(header + 2);
	if (chain.kind == IPPROTO_FRAGMENT && !chain.fragment && (field & NET16(IPV6_FRAGMENT))) {
		chain.fragment = 1;
		chain.later = (field & NET16(IPV6_OFFSET)) != 0;
		chain.fragmented = header[0];
	}
	chain.offset += extension_length(chain.kind, header[1]);
	chain.kind = header[0];
	return chain.word;
}

SUBPROGRAM __u64 follow_in_xdp(struct xdp_md *context, __u64 word)
{
	return follow((struct frame){ .context = context }, word);
}

SUBPROGRAM __u64 follow_in_parts(struct xdp_md *context, __u64 word)
{
	__u64 copy[1];

	return follow((struct frame){ .context = context, .parts = 1, .copy = copy }, word);
}

SUBPROGRAM __u64 follow_in_skb(struct __sk_buff *context, __u64 word)
{
	return follow((struct frame){ .context = context, .skb = 1 }, word);
}

INLINE __u64 follow_further(struct frame frame, __u64 word)
{
	if (frame.skb)
		return follow_in_skb(frame.context, word);
	return frame.parts ? follow_in_parts(frame.context, word) : follow_in_xdp(frame.context, word);
}

INLINE bool parse_extensions(struct packet *packet, struct frame frame, __u32 offset, __u8 kind)
{
	union chain chain = { .offset = offset, .kind = kind };

	for (int i = 0; i < MAX_EXTENSIONS; i++)
		chain.word = follow_further(frame, chain.word);
	packet->payload = chain.offset;
	packet->transport = chain.kind;
	packet->fragment = chain.fragment;
	packet->later = chain.later;
	packet->protocol = chain.fragment ? chain.fragmented : chain.kind;
	packet->any_protocol = is_extension(packet->protocol);
	return !chain.cut && (chain.fragment || !packet->any_protocol);
}

INLINE bool parse_ipv6(struct packet *packet, struct frame frame, __u32 offset)
{
	struct ipv6hdr *ip = bytes(frame, offset, sizeof(*ip));

	if (!ip || ip->version != 6)
		return 0;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	return parse_extensions(packet, frame, offset + sizeof(*ip), ip->nexthdr);
}

INLINE bool parse_ip(struct packet *packet, __u16 ether_type, struct frame frame, __u32 offset)
{
	if (ether_type == NET16(ETH_P_IP))
		return parse_ipv4(packet, frame, offset);
	if (ether_type == NET16(ETH_P_IPV6))
		return parse_ipv6(packet, frame, offset);
	return 0;
}

INLINE bool is_vlan_tag(__u16 ether_type)
{
	return ether_type == NET16(ETH_P_8021Q) || ether_type == NET16(ETH_P_8021AD);
}

INLINE bool parse_frame(struct packet *packet, struct frame frame)
{
	struct ethhdr *ethernet = bytes(frame, 0, sizeof(*ethernet));
	__u32 offset = sizeof(*ethernet);
	__u16 ether_type;

	if (!ethernet)
		return 0;
	ether_type = ethernet->h_proto;
#pragma unroll
	for (int tag = 0; tag < MAX_VLAN_TAGS; tag++) {
		__u16 *inner;

		if (!is_vlan_tag(ether_type))
			break;
		inner = bytes(frame, offset, 4);
		if (!inner)
			return 0;
		ether_type = inner[1];
		offset += 4;
	}
	return parse_ip(packet, ether_type, frame, offset);
}

INLINE bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

INLINE bool is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

// AH and ESP follow the UDP connection by which their keys were agreed.
INLINE bool follows_key_exchange(__u8 protocol)
{
	return protocol == IPPROTO_ESP || protocol == IPPROTO_AH;
}

// What the tables are asked about; a packet that is no fragment needs its ports for that.
INLINE bool parse_ports(struct packet *packet, struct frame frame)
{
	__u16 *at;

	packet->source_port = 0;
	packet->destination_port = 0;
	if (follows_key_exchange(packet->protocol) && !packet->any_protocol) {
		packet->protocol = IPPROTO_UDP;
		packet->source_port = KEY_EXCHANGE_PORT;
		packet->destination_port = KEY_EXCHANGE_PORT;
		return 1;
	}
	if (packet->any_port || !has_ports(packet->protocol))
		return 1;
	at = bytes(frame, packet->payload, 4);
	if (!at)
		return 0;
	packet->source_port = NET16(at[0]);
	packet->destination_port = NET16(at[1]);
	return 1;
}

// Whether the list has this port of a protocol, or with `any_port` the protocol.
SUBPROGRAM bool lists(const struct ranges *ranges, __u32 protocol, __u32 port, __u32 any_port)
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

// Whether the packet may belong to one of `ranges` by this port of it.
INLINE bool contains(const struct ranges *ranges, const struct packet *packet, __u16 port)
{
	if (packet->any_protocol)
		return ranges != 0;
	return lists(ranges, packet->protocol, port, packet->any_port);
}

INLINE struct ranges *ranges_of_destination(const struct address *address)
{
	struct prefix key = { .length = 128, .address = *address };

	return bpf_map_lookup_elem(&destinations, &key);
}

INLINE bool to_destination(const struct packet *packet)
{
	return contains(ranges_of_destination(&packet->destination), packet, packet->destination_port);
}

INLINE bool is_own(const struct address *address)
{
	return bpf_map_lookup_elem(&own, address) != 0;
}

// What a real server sends to this machine itself answers a health check.
INLINE bool from_server(const struct packet *packet)
{
	return contains(bpf_map_lookup_elem(&servers, &packet->source), packet, packet->source_port) &&
	       !is_own(&packet->destination);
}

INLINE bool is_ipv4(const struct address *address)
{
	return address->words[0] == 0 && address->words[1] == 0 && address->words[2] == NET32(0xffff);
}

// The answer of a server that has the virtual address itself, by here although it need not be. Linux refuses it in IPv4.
INLINE bool from_virtual_address(const struct packet *packet)
{
	return !is_ipv4(&packet->source) && !is_own(&packet->destination) &&
	       contains(ranges_of_destination(&packet->source), packet, packet->source_port);
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
	return !(type & ICMPV6_INFORMATIONAL);
}

// What may carry a packet to a real server through a tunnel: this machine sends that itself and gets the errors about it.
INLINE bool may_be_tunnel(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE || protocol == IPPROTO_UDP;
}

// A client's side complains about what the service sent, to whichever address of this machine, or anyone about what was sent
// to a real server.
INLINE bool about_balanced_flow(const struct packet *packet, const struct packet *quoted)
{
	if ((same_address(&packet->destination, &quoted->source) || is_own(&packet->destination)) &&
	    contains(ranges_of_destination(&quoted->source), quoted, quoted->source_port))
		return 1;
	if (is_own(&quoted->source) && !may_be_tunnel(quoted->protocol))
		return 0; // a health check
	// With direct routing a server gets, and complains about, packets to the virtual address.
	return contains(bpf_map_lookup_elem(&servers, &quoted->destination), quoted, quoted->destination_port) ||
	       contains(ranges_of_destination(&quoted->destination), quoted, quoted->destination_port);
}

// What IPVS sees of a quoted packet: a first fragment has the ports, a later one says nothing.
INLINE bool is_telling(struct packet *quoted)
{
	quoted->protocol = quoted->transport;
	quoted->any_protocol = 0;
	return !quoted->later && !is_icmp(quoted->transport);
}

// Whether the packet is an ICMP error about a flow with ports; `quoted` is the packet that it quotes.
INLINE bool parse_error(const struct packet *packet, struct packet *quoted, struct frame frame)
{
	__u8 *icmp = bytes(frame, packet->payload, ICMP_HEADER_LENGTH);
	__u16 ether_type = packet->protocol == IPPROTO_ICMP ? NET16(ETH_P_IP) : NET16(ETH_P_IPV6);

	if (!icmp || !is_icmp_error(packet->protocol, icmp[0]))
		return 0;
	if (!parse_ip(quoted, ether_type, frame, packet->payload + ICMP_HEADER_LENGTH) || !is_telling(quoted))
		return 0;
	return parse_ports(quoted, frame);
}

INLINE bool is_steered_error(const struct packet *packet, struct frame frame)
{
	struct packet quoted = {};

	return parse_error(packet, &quoted, frame) && about_balanced_flow(packet, &quoted);
}

INLINE bool is_steered(struct packet *packet, struct frame frame)
{
	if (is_icmp(packet->protocol) && !packet->fragment)
		return is_steered_error(packet, frame);
	// Only a first fragment has ports or a type, and its followers must go the same way.
	packet->any_port = packet->fragment;
	packet->any_protocol |= is_icmp(packet->protocol);
	return parse_ports(packet, frame) &&
	       (to_destination(packet) || from_server(packet) || from_virtual_address(packet));
}

INLINE int redirect(struct xdp_md *ctx, const struct front *front)
{
	__u32 interface = ctx->ingress_ifindex;
	__u32 queue = ctx->rx_queue_index;
	struct port *port;

#pragma unroll
	for (int i = 0; i < FRONT_PORTS; i++)
		if (front->ports[i].interface == interface && queue < front->ports[i].queues)
			return bpf_redirect_map(&sockets, front->ports[i].first + queue, front->without_socket);
	port = bpf_map_lookup_elem(&ports, &interface);

	if (!port || queue >= port->queues)
		return XDP_PASS;
	return bpf_redirect_map(&sockets, port->first + queue, front->without_socket);
}

INLINE bool is_envelope(struct frame frame)
{
	struct envelope *envelope = bytes(frame, 0, sizeof(*envelope));

	return envelope && envelope->ethernet.h_proto == NET16(ETH_P_LOCAL) &&
	       envelope->secret[0] == envelope_secret[0] && envelope->secret[1] == envelope_secret[1];
}

// What the front knows of a packet: it comes up, or (0) the tables have to be asked.
INLINE bool is_steered_in_front(struct xdp_md *ctx, const struct front *front)
{
	struct iphdr *ip = plain_ipv4(ctx);
	struct address destination;
	__u16 *ports;

	if (!ip)
		return 0;
	ports = (void *)(ip + 1);
	if (is_at(front->destinations, ip->daddr, ip->protocol, NET16(ports[1])))
		return 1;
	if (!is_at(front->servers, ip->saddr, ip->protocol, NET16(ports[0])))
		return 0;
	map_ipv4(&destination, ip->daddr);
	return !is_own(&destination);
}

INLINE int steer(struct xdp_md *ctx, struct frame frame)
{
	struct packet packet = {};
	__u32 zero = 0;
	struct front *known = bpf_map_lookup_elem(&front, &zero);

	if (!known)
		return XDP_PASS;
	if (is_steered_in_front(ctx, known))
		return redirect(ctx, known);
	return parse_frame(&packet, frame) && is_steered(&packet, frame) ? redirect(ctx, known) : XDP_PASS;
}

INLINE int serve(struct xdp_md *ctx, struct frame frame)
{
	int taken = take_shortcut(ctx, frame.parts);

	if (taken != NOT_TAKEN)
		return taken;
	if (is_envelope(frame))
		return bpf_xdp_adjust_head(ctx, sizeof(struct envelope)) == 0 ? XDP_PASS : XDP_DROP;
	return steer(ctx, frame);
}

SEC("xdp") int xlvs_steer(struct xdp_md *ctx)
{
	return serve(ctx, (struct frame){ .context = ctx });
}

// The same for packets that may lie in several buffers. The first one need not have the headers.
SEC("xdp.frags") int xlvs_steer_long(struct xdp_md *ctx)
{
	__u64 copy[HEADER_WORDS];

	return serve(ctx, (struct frame){ .context = ctx, .parts = 1, .copy = copy });
}

// This machine complains about what was sent to a real server that it is itself.
INLINE bool is_own_servers_error(const struct packet *packet, struct frame frame)
{
	struct packet quoted = {};

	return parse_error(packet, &quoted, frame) && is_own(&quoted.destination) &&
	       contains(bpf_map_lookup_elem(&servers, &quoted.destination), &quoted, quoted.destination_port);
}

INLINE bool is_own_servers_packet(struct packet *packet, struct frame frame)
{
	if (is_icmp(packet->protocol))
		return !packet->fragment && is_own_servers_error(packet, frame);
	packet->any_port = packet->fragment;
	return is_own(&packet->source) && parse_ports(packet, frame) &&
	       contains(bpf_map_lookup_elem(&servers, &packet->source), packet, packet->source_port);
}

// At an interface's way out: what this machine sends as a real server makes a detour by user space. The detour is a TAP
// device that ends with its process; a redirection to nowhere fails, and the packet leaves as without us.
SEC("classifier") int xlvs_detour(struct __sk_buff *skb)
{
	struct frame frame = { .context = skb, .skb = 1 };
	__u32 interface = skb->ifindex;
	__u32 *detour = bpf_map_lookup_elem(&detours, &interface);
	struct packet packet = {};

	if (!detour)
		return TC_ACT_UNSPEC;
	if (!bytes(frame, 0, HEADERS_LENGTH))
		bpf_skb_pull_data(skb, skb->len < HEADERS_LENGTH ? skb->len : HEADERS_LENGTH);
	if (!parse_frame(&packet, frame) || !is_own_servers_packet(&packet, frame))
		return TC_ACT_UNSPEC;
	return bpf_clone_redirect(skb, *detour, 0) < 0 ? TC_ACT_UNSPEC : TC_ACT_STOLEN;
}

#include "trial.h"

char program_license[] SEC("license") = "Apache-2.0";
