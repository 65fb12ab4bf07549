// SPDX-License-Identifier: Apache-2.0
// The rig's frames as its XDP programs see them, and their checksums.
#ifndef FRAME_BPF_H
#define FRAME_BPF_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "traffic.h"

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

// Sum over a transport header of `length` bytes and its pseudo header; 0xffff where the checksum is right.
static __always_inline __u16 transport_sum(struct headers *frame, __be32 *words, __u32 length)
{
	__u64 sum = bpf_htonl(frame->ip.protocol << 16 | length);

	sum += (__u64)frame->ip.saddr + frame->ip.daddr;
	return fold((__u32)bpf_csum_diff(0, 0, words, length, 0) + sum);
}

// The same of an IP header.
static __always_inline __u16 header_sum(struct headers *frame)
{
	__be32 ip[5];

	__builtin_memcpy(ip, &frame->ip, sizeof(ip));
	return fold((__u32)bpf_csum_diff(0, 0, ip, sizeof(ip), 0));
}

static __always_inline void turn_around(struct ethhdr *ethernet)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, mac, ETH_ALEN);
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

static __always_inline void note_latency(__u64 *buckets, __u64 latency)
{
	__u32 bit = magnitude(latency | LATENCY_STEPS);
	__u32 bucket = (bit - 5) * LATENCY_STEPS + (latency >> (bit - 5)) % (2 * LATENCY_STEPS);

	if (bucket < LATENCY_BUCKETS)
		buckets[bucket]++;
}

#endif
