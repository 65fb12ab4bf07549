// SPDX-License-Identifier: Apache-2.0
// `source` makes every frame anew where BPF_PROG_RUN with live frames calls it, `sink` counts what arrives at the other end.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "traffic.h"

// A source that was interrupted makes up for no more than this, or it would send a burst that overflows any ring.
#define LATE_NS 20000ULL
// Unstamped frames are checked one in this many: the sink shares a core with the source.
#define CHECK_EVERY 16

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sent);
} sent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrived);
} arrived SEC(".maps");

static const __u32 only;

struct headers {
	struct ethhdr ethernet;
	struct iphdr ip;
	union {
		struct {
			struct udphdr header;
			__u64 stamp[2];
		} __attribute__((packed)) udp;
		struct {
			struct tcphdr header;
			__u64 stamp[2];
		} __attribute__((packed)) tcp;
		__u8 bytes[FRAME_LENGTH - TRANSPORT_OFFSET];
	};
} __attribute__((packed));

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

// The checksum of a header to which `added` has been added, RFC 1624.
static __always_inline __u16 add_to_checksum(__u16 checksum, __u32 added)
{
	return bpf_htons(~fold((__u64)(__u16)~bpf_ntohs(checksum) + added));
}

static __always_inline int is_due(struct sent *state, __u64 gap, __u64 now)
{
	if (!gap)
		return 1;
	now <<= PACE_SHIFT;
	if (now < state->due)
		return 0;
	if (now - state->due > LATE_NS << PACE_SHIFT)
		state->due = now;
	state->due += gap;
	return 1;
}

// The stamp and its complement add nothing to a checksum.
static __always_inline void stamp(__u64 *field, __u64 now)
{
	field[0] = now;
	field[1] = ~now;
}

static __always_inline void address(struct headers *frame, __u32 flow, int tcp)
{
	__u32 host = flow / FLOWS_PER_ADDRESS, port = FIRST_SOURCE_PORT + flow % FLOWS_PER_ADDRESS;

	frame->ip.saddr = bpf_htonl(bpf_ntohl(frame->ip.saddr) + host);
	frame->ip.check = add_to_checksum(frame->ip.check, host);
	if (tcp) {
		frame->tcp.header.source = bpf_htons(port);
		frame->tcp.header.check = add_to_checksum(frame->tcp.header.check, host + port);
	} else {
		frame->udp.header.source = bpf_htons(port);
		frame->udp.header.check = add_to_checksum(frame->udp.header.check, host + port);
	}
}

SEC("xdp") int source(struct xdp_md *context)
{
	struct headers *frame = (void *)(long)context->data;
	struct settings *wanted = bpf_map_lookup_elem(&settings, &only);
	struct sent *state = bpf_map_lookup_elem(&sent, &only);
	__u64 now = 0;

	if (!wanted || !state || (void *)(frame + 1) > (void *)(long)context->data_end)
		return XDP_DROP;
	if (wanted->gap || wanted->stamped)
		now = bpf_ktime_get_ns();
	if (!is_due(state, wanted->gap, now))
		return XDP_DROP;
	// The kernel uses frames again as the last receiver left them.
	__builtin_memcpy(frame, wanted->frame, sizeof(*frame));
	address(frame, state->flow, wanted->tcp);
	if (wanted->stamped)
		stamp(wanted->tcp ? frame->tcp.stamp : frame->udp.stamp, now);
	if (++state->flow >= wanted->flows)
		state->flow = 0;
	state->frames++;
	return XDP_TX;
}

// Sum over a transport header of `length` bytes and its pseudo header; 0xffff where the checksum is right.
static __always_inline __u16 transport_sum(struct headers *frame, __be32 *words, __u32 length)
{
	__u64 sum = bpf_htonl(frame->ip.protocol << 16 | length);

	sum += (__u64)frame->ip.saddr + frame->ip.daddr;
	return fold((__u32)bpf_csum_diff(0, 0, words, length, 0) + sum);
}

static __always_inline int intact(struct headers *frame, const struct settings *wanted)
{
	__be32 ip[5], transport[sizeof(frame->bytes) / 4];

	if (frame->ip.daddr != wanted->expected[0] && frame->ip.daddr != wanted->expected[1])
		return 0;
	__builtin_memcpy(ip, &frame->ip, sizeof(ip));
	__builtin_memcpy(transport, frame->bytes, sizeof(transport));
	return fold((__u32)bpf_csum_diff(0, 0, ip, sizeof(ip), 0)) == 0xffff &&
	       transport_sum(frame, transport, sizeof(transport)) == 0xffff;
}

// Position of the highest bit.
static __always_inline __u32 magnitude(__u64 value)
{
	__u32 bit = 0;

#pragma unroll
	for (int shift = 32; shift; shift /= 2) {
		if (value >> shift) {
			value >>= shift;
			bit += shift;
		}
	}
	return bit;
}

static __always_inline void note_latency(struct arrived *count, __u64 latency)
{
	__u32 bit = magnitude(latency | LATENCY_STEPS);
	__u32 bucket = (bit - 5) * LATENCY_STEPS + (latency >> (bit - 5)) % (2 * LATENCY_STEPS);

	if (bucket < LATENCY_BUCKETS)
		count->latency[bucket]++;
}

// Turns a SYN into the answer of a server that has nothing else to say.
static __always_inline void accept(struct headers *frame)
{
	struct tcphdr answer = { .source = frame->tcp.header.dest, .dest = frame->tcp.header.source, .doff = sizeof(answer) / 4,
				 .syn = 1, .ack = 1, .seq = bpf_htonl(SERVER_SEQUENCE), .window = 0xffff };
	__be32 source = frame->ip.saddr;
	__u8 mac[ETH_ALEN];

	answer.ack_seq = bpf_htonl(bpf_ntohl(frame->tcp.header.seq) + 1);
	__builtin_memcpy(mac, frame->ethernet.h_source, ETH_ALEN);
	__builtin_memcpy(frame->ethernet.h_source, frame->ethernet.h_dest, ETH_ALEN);
	__builtin_memcpy(frame->ethernet.h_dest, mac, ETH_ALEN);
	frame->ip.saddr = frame->ip.daddr;
	frame->ip.daddr = source;
	answer.check = ~transport_sum(frame, (void *)&answer, sizeof(answer));
	frame->tcp.header = answer;
}

SEC("xdp") int sink(struct xdp_md *context)
{
	struct headers *frame = (void *)(long)context->data;
	struct settings *wanted = bpf_map_lookup_elem(&settings, &only);
	struct arrived *count = bpf_map_lookup_elem(&arrived, &only);
	__u64 sent_at;

	if (!wanted || !count || (void *)&frame->tcp.stamp > (void *)(long)context->data_end)
		return XDP_PASS;
	if (frame->ethernet.h_proto != bpf_htons(ETH_P_IP) || frame->udp.header.dest != bpf_htons(SERVICE_PORT))
		return XDP_PASS;
	if (frame->ip.protocol != (wanted->tcp ? IPPROTO_TCP : IPPROTO_UDP))
		return XDP_PASS;
	count->frames++;
	if (wanted->tcp && frame->tcp.header.syn) {
		accept(frame);
		// XDP_TX wakes only a veth that has an XDP program itself.
		return bpf_redirect(context->ingress_ifindex, 0);
	}
	if ((void *)(frame + 1) > (void *)(long)context->data_end)
		return XDP_PASS;
	sent_at = wanted->tcp ? frame->tcp.stamp[0] : frame->udp.stamp[0];
	if (sent_at)
		note_latency(count, bpf_ktime_get_ns() - sent_at);
	if (!sent_at && count->frames % CHECK_EVERY)
		return XDP_DROP;
	count->checked++;
	if (!intact(frame, wanted))
		count->bad++;
	return XDP_DROP;
}

char program_license[] SEC("license") = "Apache-2.0";
