// SPDX-License-Identifier: Apache-2.0
// What traffic.c and traffic.bpf.c say to each other.
#ifndef TRAFFIC_H
#define TRAFFIC_H

#include <linux/types.h>

// Ethernet, IPv4, then UDP and 28 bytes or TCP and 16.
#define FRAME_LENGTH 70
#define TRANSPORT_OFFSET 34
#define SERVICE_PORT 80
#define FIRST_SOURCE_PORT 1024
// Flows of one source address; the next have the next address.
#define FLOWS_PER_ADDRESS 16384
#define SERVERS 2
// Where client and server begin to count; a client's frame with data is the first of its connection again and again.
#define CLIENT_SEQUENCE 1000
#define SERVER_SEQUENCE 5000
// Powers of two, each in steps: 1 part in 32.
#define LATENCY_STEPS 32
#define LATENCY_BUCKETS (40 * LATENCY_STEPS)
// Times of the pace are in parts of a nanosecond, so that a gap need not be a whole number of them.
#define PACE_SHIFT 8

// A flood comes from addresses of which no flow is, so many from this one on.
#define FLOOD_OFFSET 8192
#define FLOOD_ADDRESSES 8192

struct settings {
	__u64 gap; // between two frames, see PACE_SHIFT; 0: as fast as it goes
	__u64 flood_gap; // the same between two of a flood
	__u32 flooding; // whether there is one
	__u32 flows;
	__u32 stamped; // whether frames carry the time of sending
	__u32 tcp;
	__u32 expected[SERVERS]; // destinations a frame may arrive at, network byte order
	__u8 frame[FRAME_LENGTH]; // of flow 0, its transport checksum for source port 0
	__u8 opening[FRAME_LENGTH]; // the same, of a flood
};

struct sent {
	__u64 frames;
	__u64 due;
	__u64 flow;
	__u64 flood; // frames of it
	__u64 flood_due;
};

struct arrived {
	__u64 frames;
	__u64 openings; // SYNs among them
	__u64 checked;
	__u64 bad; // of those checked
	__u64 latency[LATENCY_BUCKETS];
};

#endif
