// SPDX-License-Identifier: Apache-2.0
// What peer.c and peer.bpf.c say to each other.
#ifndef PEER_H
#define PEER_H

#include <linux/types.h>

enum side { CLIENTS, SERVERS, SIDES };

// Who is at either side of the router, network byte order.
struct wiring {
	__u32 interface[SIDES];
	__u8 router_mac[SIDES][6]; // of our own interface there
	__u8 next_mac[SIDES][6];
	__u32 virtual_address;
	__u32 server[2];
};

#define SERVICE_PORT 80

#endif
