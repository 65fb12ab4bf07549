// SPDX-License-Identifier: Apache-2.0
// What bounds xlvs from below: `rewrite` translates and redirects within XDP, with no state at all; `steer` hands packets to
// an AF_XDP socket, which is all that the bare forwarder has.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "peer.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wiring);
} wiring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, SIDES);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

static const __u32 only;

struct packet {
	struct ethhdr ethernet;
	struct iphdr ip;
	__be16 source_port;
	__be16 destination_port;
} __attribute__((packed));

// Null for what the kernel keeps: ARP, ICMP, IP options, fragments.
static __always_inline struct packet *parse(struct xdp_md *context)
{
	struct packet *packet = (void *)(long)context->data;

	if ((void *)(packet + 1) > (void *)(long)context->data_end || packet->ethernet.h_proto != bpf_htons(ETH_P_IP))
		return 0;
	if (packet->ip.ihl != 5 || packet->ip.frag_off & bpf_htons(0x3fff))
		return 0;
	return packet->ip.protocol == IPPROTO_TCP || packet->ip.protocol == IPPROTO_UDP ? packet : 0;
}

// RFC 1624, for a 32-bit field.
static __always_inline void replace(__sum16 *checksum, __be32 old, __be32 new)
{
	__u64 sum = (__u16)~*checksum + (__u64)(__u32)~old + new;

	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	*checksum = ~((sum & 0xffff) + (sum >> 16));
}

static __always_inline void translate(struct packet *packet, __be32 *field, __be32 new, __sum16 *transport)
{
	replace(&packet->ip.check, *field, new);
	replace(transport, *field, new);
	*field = new;
}

static __always_inline void lower_ttl(struct iphdr *ip)
{
	__be16 *field = (void *)&ip->ttl;
	__be16 old = *field;

	ip->ttl--;
	replace(&ip->check, old, *field);
}

static __always_inline int leave(struct packet *packet, const struct wiring *wires, enum side side)
{
	__builtin_memcpy(packet->ethernet.h_dest, wires->next_mac[side], ETH_ALEN);
	__builtin_memcpy(packet->ethernet.h_source, wires->router_mac[side], ETH_ALEN);
	return bpf_redirect(wires->interface[side], 0);
}

// The checksum of the transport header, or null where the frame ends before.
static __always_inline __sum16 *transport_checksum(struct xdp_md *context, struct packet *packet)
{
	struct tcphdr *tcp = (void *)&packet->source_port;
	struct udphdr *udp = (void *)&packet->source_port;

	if (packet->ip.protocol == IPPROTO_UDP)
		return (void *)(udp + 1) > (void *)(long)context->data_end ? 0 : &udp->check;
	return (void *)(tcp + 1) > (void *)(long)context->data_end ? 0 : &tcp->check;
}

SEC("xdp") int rewrite(struct xdp_md *context)
{
	struct wiring *wires = bpf_map_lookup_elem(&wiring, &only);
	struct packet *packet = parse(context);
	__sum16 *transport;

	if (!wires || !packet)
		return XDP_PASS;
	transport = transport_checksum(context, packet);
	if (!transport || packet->ip.ttl <= 1)
		return XDP_PASS;
	if (packet->ip.daddr == wires->virtual_address && packet->destination_port == bpf_htons(SERVICE_PORT)) {
		translate(packet, &packet->ip.daddr, wires->server[bpf_ntohs(packet->source_port) & 1], transport);
		lower_ttl(&packet->ip);
		return leave(packet, wires, SERVERS);
	}
	if (packet->source_port == bpf_htons(SERVICE_PORT) &&
	    (packet->ip.saddr == wires->server[0] || packet->ip.saddr == wires->server[1])) {
		translate(packet, &packet->ip.saddr, wires->virtual_address, transport);
		lower_ttl(&packet->ip);
		return leave(packet, wires, CLIENTS);
	}
	return XDP_PASS;
}

SEC("xdp") int steer(struct xdp_md *context)
{
	struct wiring *wires = bpf_map_lookup_elem(&wiring, &only);

	if (!wires || !parse(context))
		return XDP_PASS;
	return bpf_redirect_map(&sockets, context->ingress_ifindex == wires->interface[CLIENTS] ? CLIENTS : SERVERS, XDP_PASS);
}

char program_license[] SEC("license") = "Apache-2.0";
