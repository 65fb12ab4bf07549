// SPDX-License-Identifier: Apache-2.0
// TCP as far as many short exchanges need it: `servers` answers and remembers nothing, `clients` answers and remembers how far
// each connection is. What is lost crowd.c sends again.

#include "frame.bpf.h"

#include "crowd.h"

#define FLAGS 13

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct people);
} people SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct events);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); // crowd.c says how many
	__type(key, __u32);
	__type(value, struct connection);
} connections SEC(".maps");

static const __u32 only;

struct segment {
	__u32 sequence;
	__u32 acknowledged;
	__u32 request;
	__u32 length; // of the data
	__u8 flags;
};

// Null for what is none of ours.
static __always_inline struct headers *parse(struct xdp_md *context)
{
	struct headers *frame = (void *)(long)context->data;

	if ((void *)(frame + 1) > (void *)(long)context->data_end || frame->ethernet.h_proto != bpf_htons(ETH_P_IP))
		return 0;
	return frame->ip.protocol == IPPROTO_TCP && frame->ip.ihl == 5 ? frame : 0;
}

// Whether the checksums are right and there is all that the lengths promise.
static __always_inline int read_segment(struct headers *frame, struct segment *segment)
{
	__be32 words[sizeof(frame->bytes) / 4];

	__builtin_memcpy(words, frame->bytes, sizeof(words));
	segment->sequence = bpf_ntohl(frame->tcp.header.seq);
	segment->acknowledged = bpf_ntohl(frame->tcp.header.ack_seq);
	segment->flags = frame->bytes[FLAGS];
	segment->request = bpf_ntohl(frame->tcp.stamp[1] >> 32);
	segment->length = frame->tcp.header.doff == WITH_DATA ? DATA_LENGTH : 0;
	return bpf_ntohs(frame->ip.tot_len) == sizeof(frame->ip) + sizeof(words) && header_sum(frame) == 0xffff &&
	       transport_sum(frame, words, sizeof(words)) == 0xffff;
}

// Sends a frame back as another segment.
static __always_inline int answer(struct xdp_md *context, struct headers *frame, const struct segment *segment)
{
	__be32 words[sizeof(frame->bytes) / 4], source = frame->ip.saddr;
	struct tcphdr tcp = { .source = frame->tcp.header.dest, .dest = frame->tcp.header.source,
			      .doff = segment->length ? WITH_DATA : WITH_OPTIONS, .seq = bpf_htonl(segment->sequence),
			      .ack_seq = bpf_htonl(segment->acknowledged), .window = 0xffff };

	turn_around(&frame->ethernet);
	frame->ip.saddr = frame->ip.daddr;
	frame->ip.daddr = source;
	frame->ip.ttl = 64;
	frame->ip.check = 0;
	frame->ip.check = ~header_sum(frame);
	frame->tcp.header = tcp;
	frame->bytes[FLAGS] = segment->flags;
	if (!segment->length)
		__builtin_memset(frame->tcp.stamp, NO_OPERATION, sizeof(frame->tcp.stamp));
	__builtin_memcpy(words, frame->bytes, sizeof(words));
	frame->tcp.header.check = ~transport_sum(frame, words, sizeof(words));
	// XDP_TX wakes only a veth that has an XDP program itself.
	return bpf_redirect(context->ingress_ifindex, 0);
}

// Where a server begins to count depends on both ends, so that no other server takes a connection for its own.
static __always_inline __u32 first_sequence(struct headers *frame, __u32 server)
{
	__u32 mixed = bpf_ntohl(frame->ip.saddr) * 2654435761u + bpf_ntohs(frame->tcp.header.source) * 2246822519u;

	return (mixed ^ mixed >> 15) << 1 | server;
}

SEC("xdp") int servers(struct xdp_md *context)
{
	const struct people *known = bpf_map_lookup_elem(&people, &only);
	struct events *count = bpf_map_lookup_elem(&events, &only);
	struct headers *frame = parse(context);
	struct segment segment, said;
	__u32 first;

	if (!known || !count || !frame || frame->tcp.header.dest != bpf_htons(SERVICE_PORT))
		return XDP_PASS;
	if (!read_segment(frame, &segment) || (frame->ip.daddr != known->server[0] && frame->ip.daddr != known->server[1])) {
		count->strange++;
		return XDP_DROP;
	}
	first = first_sequence(frame, frame->ip.daddr == known->server[1]);
	said = (struct segment){ .sequence = segment.acknowledged, .acknowledged = segment.sequence + segment.length,
				 .length = segment.length, .flags = ACK };
	if (segment.flags & SYN) {
		said.sequence = first;
		said.acknowledged++;
		said.flags |= SYN;
		return answer(context, frame, &said);
	}
	if (!segment.length && !(segment.flags & FIN))
		return XDP_DROP;
	// A request is for what the former ones left; the end comes after one.
	if (segment.acknowledged - (first + 1) != (segment.length ? segment.request : 1) * DATA_LENGTH) {
		count->strange++;
		return XDP_DROP;
	}
	if (segment.flags & FIN)
		said.acknowledged++;
	said.flags |= segment.flags & (FIN | PSH);
	return answer(context, frame, &said);
}

// The first answer: on a connection that stays all is said, on another the request goes with the acknowledgement.
static __always_inline int opened(struct xdp_md *context, struct headers *frame, struct connection *connection, __u32 number,
				  int stays, struct events *count)
{
	struct segment said = { .sequence = CLIENT_SEQUENCE + 1, .acknowledged = connection->server_sequence + 1, .flags = ACK };

	if (!stays) {
		said.flags |= PSH;
		said.length = DATA_LENGTH;
		frame->tcp.stamp[0] = bpf_ktime_get_ns();
		frame->tcp.stamp[1] = bpf_htonl(number);
	}
	if (connection->state == UNOPENED) {
		connection->state = OPEN;
		if (!stays)
			count->opened++;
	}
	return answer(context, frame, &said);
}

static __always_inline int answered(struct xdp_md *context, struct headers *frame, struct connection *connection,
				    const struct segment *segment, int stays, struct events *count)
{
	struct segment said = { .sequence = segment->acknowledged, .acknowledged = segment->sequence + DATA_LENGTH,
				.flags = ACK | FIN };

	if (stays && (__u16)segment->request == connection->answered) {
		connection->answered++;
		count->answered++;
		note_latency(count->latency, bpf_ktime_get_ns() - frame->tcp.stamp[0]);
	}
	if (stays || connection->state > CLOSING)
		return XDP_DROP;
	connection->state = CLOSING;
	return answer(context, frame, &said);
}

static __always_inline int closed(struct xdp_md *context, struct headers *frame, struct connection *connection,
				  const struct segment *segment, struct events *count)
{
	struct segment said = { .sequence = segment->acknowledged, .acknowledged = segment->sequence + 1, .flags = ACK };

	if (connection->state == CLOSING) {
		connection->state = CLOSED;
		count->closed++;
	}
	return answer(context, frame, &said);
}

static __always_inline int is_expected(const struct connection *connection, const struct segment *segment, __u32 number,
				       struct headers *frame)
{
	__u32 had = segment->length ? segment->request : 1;

	if (!(segment->flags & ACK) || connection->state == UNOPENED)
		return 0;
	if (segment->length && frame->tcp.stamp[1] << 32 >> 32 != bpf_htonl(number))
		return 0;
	return segment->sequence == connection->server_sequence + 1 + had * DATA_LENGTH &&
	       segment->acknowledged == CLIENT_SEQUENCE + 1 + (had + !!segment->length) * DATA_LENGTH + !!(segment->flags & FIN);
}

SEC("xdp") int clients(struct xdp_md *context)
{
	const struct people *known = bpf_map_lookup_elem(&people, &only);
	struct events *count = bpf_map_lookup_elem(&events, &only);
	struct headers *frame = parse(context);
	struct connection *connection;
	struct segment segment;
	__u32 number;

	if (!known || !count || !frame || frame->tcp.header.source != bpf_htons(SERVICE_PORT))
		return XDP_PASS;
	number = (bpf_ntohl(frame->ip.daddr) - known->client) * FLOWS_PER_ADDRESS + bpf_ntohs(frame->tcp.header.dest) -
		 FIRST_SOURCE_PORT;
	connection = bpf_map_lookup_elem(&connections, &number);
	if (!connection || !read_segment(frame, &segment) || frame->ip.saddr != known->virtual_address)
		goto wrong;
	if (segment.flags == (SYN | ACK)) {
		if (segment.acknowledged != CLIENT_SEQUENCE + 1)
			goto wrong;
		if (connection->state == UNOPENED)
			connection->server_sequence = segment.sequence;
		if (connection->server_sequence != segment.sequence)
			goto wrong;
		return opened(context, frame, connection, number, number < known->held, count);
	}
	if (!is_expected(connection, &segment, number, frame))
		goto wrong;
	if (segment.length)
		return answered(context, frame, connection, &segment, number < known->held, count);
	if (segment.flags & FIN && number >= known->held)
		return closed(context, frame, connection, &segment, count);
wrong:
	count->wrong++;
	return XDP_DROP;
}

char program_license[] SEC("license") = "Apache-2.0";
