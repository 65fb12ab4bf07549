// SPDX-License-Identifier: Apache-2.0
// `source` makes every frame anew where BPF_PROG_RUN with live frames calls it, `sink` counts what arrives at the other end.

#include "frame.bpf.h"

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

// The checksum of a header to which `added` has been added, RFC 1624.
static __always_inline __u16 add_to_checksum(__u16 checksum, __u32 added)
{
	return bpf_htons(~fold((__u64)(__u16)~bpf_ntohs(checksum) + added));
}

static __always_inline int is_due(__u64 *due, __u64 gap, __u64 now)
{
	if (!gap)
		return 1;
	now <<= PACE_SHIFT;
	if (now < *due)
		return 0;
	if (now - *due > LATE_NS << PACE_SHIFT)
		*due = now;
	*due += gap;
	return 1;
}

// The stamp and its complement add nothing to a checksum.
static __always_inline void stamp(__u64 *field, __u64 now)
{
	field[0] = now;
	field[1] = ~now;
}

static __always_inline void address(struct headers *frame, __u32 host, __u32 port, int tcp)
{
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

// One more SYN, from anywhere.
static __always_inline int flood(struct headers *frame, const struct settings *wanted, struct sent *state)
{
	__u32 random = bpf_get_prandom_u32();

	__builtin_memcpy(frame, wanted->opening, sizeof(*frame));
	address(frame, FLOOD_OFFSET + random % FLOOD_ADDRESSES, FIRST_SOURCE_PORT + (random >> 16) % FLOWS_PER_ADDRESS, 1);
	state->flood++;
	return XDP_TX;
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
	if (!is_due(&state->due, wanted->gap, now))
		return wanted->flooding && is_due(&state->flood_due, wanted->flood_gap, now) ? flood(frame, wanted, state) : XDP_DROP;
	// The kernel uses frames again as the last receiver left them.
	__builtin_memcpy(frame, wanted->frame, sizeof(*frame));
	address(frame, state->flow / FLOWS_PER_ADDRESS, FIRST_SOURCE_PORT + state->flow % FLOWS_PER_ADDRESS, wanted->tcp);
	if (wanted->stamped)
		stamp(wanted->tcp ? frame->tcp.stamp : frame->udp.stamp, now);
	if (++state->flow >= wanted->flows)
		state->flow = 0;
	state->frames++;
	return XDP_TX;
}

static __always_inline int intact(struct headers *frame, const struct settings *wanted)
{
	__be32 transport[sizeof(frame->bytes) / 4];

	if (frame->ip.daddr != wanted->expected[0] && frame->ip.daddr != wanted->expected[1])
		return 0;
	__builtin_memcpy(transport, frame->bytes, sizeof(transport));
	return header_sum(frame) == 0xffff && transport_sum(frame, transport, sizeof(transport)) == 0xffff;
}

// Turns a SYN into the answer of a server that has nothing else to say.
static __always_inline void accept(struct headers *frame)
{
	struct tcphdr answer = { .source = frame->tcp.header.dest, .dest = frame->tcp.header.source, .doff = sizeof(answer) / 4,
				 .syn = 1, .ack = 1, .seq = bpf_htonl(SERVER_SEQUENCE), .window = 0xffff };
	__be32 source = frame->ip.saddr;

	answer.ack_seq = bpf_htonl(bpf_ntohl(frame->tcp.header.seq) + 1);
	turn_around(&frame->ethernet);
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
		count->openings++;
		accept(frame);
		// XDP_TX wakes only a veth that has an XDP program itself.
		return bpf_redirect(context->ingress_ifindex, 0);
	}
	if ((void *)(frame + 1) > (void *)(long)context->data_end)
		return XDP_PASS;
	sent_at = wanted->tcp ? frame->tcp.stamp[0] : frame->udp.stamp[0];
	if (sent_at)
		note_latency(count->latency, bpf_ktime_get_ns() - sent_at);
	if (!sent_at && count->frames % CHECK_EVERY)
		return XDP_DROP;
	count->checked++;
	if (!intact(frame, wanted))
		count->bad++;
	return XDP_DROP;
}

// The answers to SYNs; the end host shall not spend the source's time on them.
SEC("xdp") int absorb(struct xdp_md *context)
{
	struct headers *frame = (void *)(long)context->data;

	if ((void *)&frame->tcp.stamp > (void *)(long)context->data_end || frame->ethernet.h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (frame->ip.protocol != IPPROTO_TCP || frame->tcp.header.source != bpf_htons(SERVICE_PORT))
		return XDP_PASS;
	return XDP_DROP;
}

char program_license[] SEC("license") = "Apache-2.0";
