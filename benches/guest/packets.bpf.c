// SPDX-License-Identifier: Apache-2.0
// What surrounds the routers that are compared, a source and a sink, and the two that are XDP programs themselves. The
// source runs by BPF_PROG_TEST_RUN on live frames, the others on the interfaces.

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include "bpf_call.h"

#define FRAME_LENGTH 60
#define FLOWS_MAX 65536
#define HEADERS_LENGTH (sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr))
#define GOLDEN_RATIO 2654435761u // of 2^32: its multiples visit all flows evenly, none of them twice in a row

static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) =
	(void *)BPF_FUNC_map_update_elem;

// Addresses in network byte order. compare.py writes this.
struct plan {
	__u32 flows;
	__u32 way_out; // interface index
	__u32 virtual_address;
	__u32 servers[2];
	__u8 server_mac[ETH_ALEN];
	__u8 own_mac[ETH_ALEN];
	__u8 frame[FRAME_LENGTH]; // of the first flow
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct plan);
} plans SEC(".maps");

enum counter { SENT, DELIVERED, SCHEDULED, COUNTERS };

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, COUNTERS);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
} counters SEC(".maps");

struct flow {
	__u32 source;
	__u32 destination;
	__u16 source_port;
	__u16 destination_port;
	__u32 protocol;
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_NUMBER(max_entries, FLOWS_MAX);
	MAP_TYPE(key, struct flow);
	MAP_TYPE(value, __u32);
} flows SEC(".maps");

struct packet {
	struct ethhdr *ethernet;
	struct iphdr *ip;
	struct udphdr *udp;
};

INLINE struct plan *get_plan(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&plans, &key);
}

// Counts one more; returns how many there were.
INLINE __u64 count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	return value ? __sync_fetch_and_add(value, 1) : 0;
}

// RFC 1624: the checksum after `old` has become `new` (any byte order, the same for all).
INLINE __u16 adjust(__u16 checksum, __u32 old, __u32 new)
{
	__u32 sum = (__u16)~checksum;

	sum += (__u16)~old + (__u16)(~old >> 16) + (__u16)new + (__u16)(new >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

INLINE int parse(struct xdp_md *ctx, struct packet *packet)
{
	void *start = (void *)(long)ctx->data;

	if (start + HEADERS_LENGTH > (void *)(long)ctx->data_end)
		return 0;
	packet->ethernet = start;
	packet->ip = start + sizeof(struct ethhdr);
	packet->udp = start + sizeof(struct ethhdr) + sizeof(struct iphdr);
	return packet->ethernet->h_proto == NET16(ETH_P_IP) && packet->ip->ihl == 5 && packet->ip->protocol == IPPROTO_UDP;
}

// The kernel uses the frames again as the router left them, so the headers are written anew each time.
SEC("xdp") int source(struct xdp_md *ctx)
{
	void *start = (void *)(long)ctx->data;
	struct udphdr *udp = start + sizeof(struct ethhdr) + sizeof(struct iphdr);
	struct plan *plan = get_plan();

	if (!plan || start + FRAME_LENGTH > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(start, plan->frame, HEADERS_LENGTH);
	__u32 hash = (__u32)count(SENT) * GOLDEN_RATIO;
	__u16 port = NET16(1024 + (((__u64)hash * plan->flows) >> 32));
	udp->check = adjust(udp->check, udp->source, port);
	udp->source = port;
	return XDP_TX;
}

SEC("xdp") int sink(struct xdp_md *ctx)
{
	struct plan *plan = get_plan();
	struct packet packet;

	if (!plan || !parse(ctx, &packet))
		return XDP_PASS;
	if (packet.ip->daddr == plan->servers[0] || packet.ip->daddr == plan->servers[1])
		count(DELIVERED);
	return XDP_DROP;
}

INLINE int send_to(__u32 server, struct packet *packet, const struct plan *plan)
{
	struct iphdr *ip = packet->ip;
	__u16 *ttl = (__u16 *)&ip->ttl, old = *ttl;

	ip->ttl--;
	ip->check = adjust(adjust(ip->check, ip->daddr, server), old, *ttl);
	if (packet->udp->check)
		packet->udp->check = adjust(packet->udp->check, ip->daddr, server);
	ip->daddr = server;
	__builtin_memcpy(packet->ethernet->h_dest, plan->server_mac, ETH_ALEN);
	__builtin_memcpy(packet->ethernet->h_source, plan->own_mac, ETH_ALEN);
	return bpf_redirect(plan->way_out, 0);
}

// A flow stays on the server that it was given first.
INLINE __u32 server_of(const struct packet *packet, const struct plan *plan)
{
	struct flow flow = {
		.source = packet->ip->saddr,
		.destination = packet->ip->daddr,
		.source_port = packet->udp->source,
		.destination_port = packet->udp->dest,
		.protocol = packet->ip->protocol,
	};
	__u32 *known = bpf_map_lookup_elem(&flows, &flow);
	__u32 server;

	if (known)
		return *known;
	server = plan->servers[count(SCHEDULED) & 1];
	bpf_map_update_elem(&flows, &flow, &server, BPF_ANY);
	return server;
}

SEC("xdp") int rewrite(struct xdp_md *ctx)
{
	struct plan *plan = get_plan();
	struct packet packet;

	if (!plan || !parse(ctx, &packet) || packet.ip->daddr != plan->virtual_address)
		return XDP_PASS;
	return send_to(plan->servers[0], &packet, plan);
}

SEC("xdp") int balance(struct xdp_md *ctx)
{
	struct plan *plan = get_plan();
	struct packet packet;

	if (!plan || !parse(ctx, &packet) || packet.ip->daddr != plan->virtual_address)
		return XDP_PASS;
	return send_to(server_of(&packet, plan), &packet, plan);
}

char program_license[] SEC("license") = "Apache-2.0";
