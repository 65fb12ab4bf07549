// SPDX-License-Identifier: Apache-2.0
// Most packets are plain IPv4 to or from one of few places. These are looked for in a list first, which costs a fraction of what
// the tables do. It only ever says yes: what it does not have the tables are asked about.
#ifndef XLVS_FRONT_H
#define XLVS_FRONT_H

#include "packet.h"

#define FRONT_PLACES 8 // of each kind; FRONT_PLACES of user space
#define FRONT_PORTS 4
#define IPV4_HEADER_BYTE 0x45 // version 4, no options

// Ports of one protocol at an address, both ends included. Of an unused one `low` is above `high`.
struct place {
	__u32 address; // network byte order
	__u16 low; // host byte order
	__u16 high;
	__u32 protocol; // 0 is any
};

// An interface, and where its sockets lie in `sockets`; interface 0 is none.
struct front_port {
	__u32 interface;
	__u32 first;
	__u32 queues;
};

struct front {
	__u32 without_socket; // what becomes of a packet for a socket that is not there: an XDP action
	struct front_port ports[FRONT_PORTS];
	struct place destinations[FRONT_PLACES];
	struct place servers[FRONT_PLACES];
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct front);
} front SEC(".maps");

INLINE bool is_at(const struct place *places, __u32 address, __u32 protocol, __u32 port)
{
#pragma unroll
	for (int i = 0; i < FRONT_PLACES; i++) {
		const struct place *place = &places[i];

		if (place->address == address && place->low <= port && port <= place->high &&
		    (place->protocol == 0 || place->protocol == protocol))
			return 1;
	}
	return 0;
}

// Whether a frame of this context is plain TCP or UDP over IPv4.
INLINE struct iphdr *plain_ipv4(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);

	if ((void *)(ip + 1) + sizeof(__u32) > (void *)(long)ctx->data_end || ethernet->h_proto != NET16(ETH_P_IP))
		return 0;
	if (*(__u8 *)ip != IPV4_HEADER_BYTE || (ip->frag_off & NET16(IPV4_FRAGMENT)))
		return 0;
	return ip->protocol == IPPROTO_TCP || ip->protocol == IPPROTO_UDP ? ip : 0;
}

#endif
