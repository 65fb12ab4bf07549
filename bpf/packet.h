// SPDX-License-Identifier: Apache-2.0
// What steering and the shortcut share.
#ifndef XLVS_PACKET_H
#define XLVS_PACKET_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "bpf_call.h"

#define MAX_PORTS 256
#define IPV4_FRAGMENT 0x3fff // more fragments, or an offset

typedef _Bool bool;

// IPv4 is held as ::ffff:a.b.c.d where one table serves both families. Network byte order.
struct address {
	__u32 words[4];
};

#endif
