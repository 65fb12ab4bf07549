// SPDX-License-Identifier: Apache-2.0
// How user space finds out which interfaces the shortcut can leave by. Behind the steering program: tools that attach a file
// take the first program in it.
#ifndef XLVS_TRIAL_H
#define XLVS_TRIAL_H

#include "shortcut.h"

// A frame that user space has sent to find out whether a device takes it.
struct trial {
	__u32 processor; // the one that sends it, counted from 1, until the device has been asked
	__u32 taken;
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct trial);
} trial SEC(".maps");

// Sends a frame to the exit whose number follows its Ethernet header.
INLINE int try_exit(struct xdp_md *ctx)
{
	__u8 *exit = (__u8 *)(long)ctx->data + sizeof(struct ethhdr);
	__u32 zero = 0;
	struct trial *now = bpf_map_lookup_elem(&trial, &zero);

	if (!now || exit + 1 > (__u8 *)(long)ctx->data_end)
		return XDP_DROP;
	now->processor = bpf_get_smp_processor_id() + 1;
	return bpf_redirect_map(&exits, *exit, 0);
}

SEC("xdp") int xlvs_try_exit(struct xdp_md *ctx)
{
	return try_exit(ctx);
}

// The kernel lets only programs of one kind share a table of exits.
SEC("xdp.frags") int xlvs_try_long(struct xdp_md *ctx)
{
	return try_exit(ctx);
}

// The tracepoint's arguments are the two devices, how many frames were sent and how many not, and an error number. There is
// none where the device takes frames and only has no room at the moment. Others may redirect frames too, but on this processor
// not before the one of the trial has been delivered.
SEC("raw_tp") int xlvs_delivered(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0;
	struct trial *now = bpf_map_lookup_elem(&trial, &zero);

	if (!now || now->processor != bpf_get_smp_processor_id() + 1)
		return 0;
	now->taken = (int)ctx->args[4] == 0;
	now->processor = 0;
	return 0;
}

#endif
