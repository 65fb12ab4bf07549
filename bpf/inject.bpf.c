// SPDX-License-Identifier: Apache-2.0
// Run by BPF_PROG_TEST_RUN on live frames: whatever comes in goes on to the IP stack of the interface that the context
// names.

#include <linux/if_ether.h>

#include "bpf_call.h"

// An Ethernet type of zero is no valid frame; it is the one with which user space finds out whether live frames work.
SEC("xdp") int xlvs_inject(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end || ethernet->h_proto == 0)
		return XDP_DROP;
	return XDP_PASS;
}

char program_license[] SEC("license") = "Apache-2.0";
