// SPDX-License-Identifier: Apache-2.0
// Run by BPF_PROG_TEST_RUN on live frames: whatever comes in goes on to the IP stack of the interface that the context
// names. Such a frame has to fit a page. Longer ones come by a TAP device of ours, at whose way in they are redirected to that of
// their interface.

#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include "bpf_call.h"
#include "packet.h"

// By the TAP device the interface; both are interface indexes.
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, MAX_PORTS);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} entrances SEC(".maps");

// An Ethernet type of zero is no valid frame; it is the one with which user space finds out whether live frames work.
SEC("xdp") int xlvs_inject(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end || ethernet->h_proto == 0)
		return XDP_DROP;
	return XDP_PASS;
}

// The kernel checks no MTU on this way, so that an envelope around a frame of full size does not matter.
SEC("classifier") int xlvs_reenter(struct __sk_buff *skb)
{
	__u32 interface = skb->ifindex;
	__u32 *entrance = bpf_map_lookup_elem(&entrances, &interface);

	return entrance ? bpf_redirect(*entrance, BPF_F_INGRESS) : TC_ACT_SHOT;
}

char program_license[] SEC("license") = "Apache-2.0";
