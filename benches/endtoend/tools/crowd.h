// SPDX-License-Identifier: Apache-2.0
// What crowd.c and crowd.bpf.c say to each other.
#ifndef CROWD_H
#define CROWD_H

#include "traffic.h"

// Data of a request and of its answer: the time of sending, then the number of the connection and, above it, that of the
// request, both in network byte order.
#define DATA_LENGTH 16
// A segment without data has as many bytes of options, so that all frames are equally long. Data offsets, in words.
#define WITH_DATA 5
#define WITH_OPTIONS 9
#define NO_OPERATION 1
#define ACK 0x10
#define PSH 0x08
#define SYN 0x02
#define FIN 0x01

enum state { UNOPENED, OPEN, CLOSING, CLOSED };

// A connection as its client knows it. The number of a connection says its address and port, as that of a flow does.
struct connection {
	__u32 server_sequence; // where the server began; its last bit says which server
	__u16 answered; // requests
	__u8 state;
	__u8 unused;
};

struct people {
	__u32 client; // address of the first, host byte order
	__u32 virtual_address; // network byte order
	__u32 server[SERVERS]; // network byte order
	__u32 held; // connections from this number on end after one request
};

struct events {
	__u64 opened; // of those that end again
	__u64 closed;
	__u64 answered; // requests on those that stay
	__u64 wrong; // frames for a client that have another address, port, checksum or sequence number than they must
	__u64 strange; // the same for a server
	__u64 latency[LATENCY_BUCKETS]; // of requests on those that stay, there and back
};

#endif
