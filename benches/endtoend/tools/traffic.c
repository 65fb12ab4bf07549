// SPDX-License-Identifier: Apache-2.0
// traffic udp|tcp OBJECT SOURCE_NAMESPACE SOURCE_INTERFACE SINK_NAMESPACE SINK_INTERFACE SOURCE_MAC NEXT_MAC
//         SOURCE DESTINATION EXPECTED EXPECTED
// Sends frames from one namespace and counts what arrives in another. Commands come by stdin, one a line:
//   send FRAMES_PER_SECOND SECONDS FLOWS STAMPED     (0 frames a second: as many as go)
//   open FRAMES_PER_SECOND SECONDS FLOWS 0           (SYNs, which the sink answers; the first frame with data does the rest)
//   send FRAMES_PER_SECOND SECONDS FLOWS STAMPED SYNS_PER_SECOND     (beside a flood from random sources; 0: as many as go)
// and each is answered by a line of JSON. The end of stdin is the end.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "traffic.h"
#include "process.h"

// More frames than any trial asks for: an alarm ends it.
#define ENDLESS 0x7fffffff
#define BATCH 64
// A batch leaves together; when its frames carry the time, they shall not wait long for the last one.
#define STAMPED_BATCH 8
// What is still in the router's queues when the source ends.
#define DRAIN_US 60000

static struct bpf_object *object;
static struct settings settings;
static __u32 source, destination;
static const __u32 only;

static unsigned int interface(const char *name)
{
	unsigned int index = if_nametoindex(name);

	if (!index)
		die(name);
	return index;
}

static int map(const char *name)
{
	int fd = bpf_object__find_map_fd_by_name(object, name);

	if (fd < 0)
		die(name);
	return fd;
}

static int program(const char *name)
{
	struct bpf_program *found = bpf_object__find_program_by_name(object, name);

	if (!found)
		die(name);
	return bpf_program__fd(found);
}

static void load(const char *path)
{
	object = bpf_object__open_file(path, NULL);
	if (!object || bpf_object__load(object) < 0)
		die(path);
}

static void attach(const char *what, const char *name)
{
	if (bpf_xdp_attach(interface(name), program(what), XDP_FLAGS_DRV_MODE, NULL) < 0)
		die(what);
}

static void read_counts(struct sent *sent, struct arrived *arrived)
{
	if (bpf_map_lookup_elem(map("sent"), &only, sent) < 0 || bpf_map_lookup_elem(map("arrived"), &only, arrived) < 0)
		die("cannot read the counts");
}

static void clear_counts(void)
{
	static const struct arrived nothing;

	if (bpf_map_update_elem(map("arrived"), &only, &nothing, 0) < 0)
		die("cannot clear the counts");
}

static __u32 add(__u32 sum, const void *data, size_t length)
{
	const __u8 *byte = data;

	for (size_t at = 0; at < length; at += 2)
		sum += byte[at] << 8 | byte[at + 1];
	return sum;
}

static __u16 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return htons(~(sum + (sum >> 16)));
}

static __u32 address(const char *text)
{
	struct in_addr parsed;

	if (!inet_aton(text, &parsed))
		die(text);
	return parsed.s_addr;
}

static void set_mac(__u8 *field, const char *text)
{
	struct ether_addr *parsed = ether_aton(text);

	if (!parsed)
		die(text);
	memcpy(field, parsed, ETH_ALEN);
}

static void make_ethernet(__u8 *to, const char *source, const char *next)
{
	struct ethhdr *ethernet = (void *)to;

	set_mac(ethernet->h_source, source);
	set_mac(ethernet->h_dest, next);
	ethernet->h_proto = htons(ETH_P_IP);
}

static size_t make_udp(__u8 *to)
{
	struct udphdr udp = { .dest = htons(SERVICE_PORT), .len = htons(FRAME_LENGTH - TRANSPORT_OFFSET) };

	memcpy(to, &udp, sizeof(udp));
	return FRAME_LENGTH - TRANSPORT_OFFSET;
}

static size_t make_tcp(__u8 *to, int opening)
{
	struct tcphdr tcp = { .dest = htons(SERVICE_PORT), .doff = sizeof(tcp) / 4, .window = 0xffff, .seq = htonl(CLIENT_SEQUENCE) };

	if (opening) {
		tcp.syn = 1;
	} else {
		tcp.seq = htonl(CLIENT_SEQUENCE + 1);
		tcp.ack_seq = htonl(SERVER_SEQUENCE + 1);
		tcp.ack = 1;
	}
	memcpy(to, &tcp, sizeof(tcp));
	return opening ? sizeof(tcp) : FRAME_LENGTH - TRANSPORT_OFFSET;
}

// A SYN has no data; what is left of its frame is padding.
static void make_packet(__u8 *frame, int opening)
{
	__u8 *transport = frame + TRANSPORT_OFFSET;
	struct iphdr ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = settings.tcp ? IPPROTO_TCP : IPPROTO_UDP, .saddr = source,
			    .daddr = destination };
	size_t length, field = settings.tcp ? offsetof(struct tcphdr, check) : offsetof(struct udphdr, check);
	__u16 sum;

	memset(transport, 0, FRAME_LENGTH - TRANSPORT_OFFSET);
	length = settings.tcp ? make_tcp(transport, opening) : make_udp(transport);
	ip.tot_len = htons(sizeof(ip) + length);
	ip.check = checksum(add(0, &ip, sizeof(ip)));
	memcpy(frame + ETH_HLEN, &ip, sizeof(ip));
	sum = checksum(add(add(ip.protocol + length, &ip.saddr, 8), transport, length));
	memcpy(transport + field, &sum, sizeof(sum));
}

static __u64 now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

// It comes again, should the first have come before there was anything to end. 0: no alarm.
static void set_alarm(double seconds)
{
	struct timeval time = { seconds, (seconds - (long)seconds) * 1e6 };
	struct itimerval timer = { .it_interval = time, .it_value = time };

	setitimer(ITIMER_REAL, &timer, NULL);
}

// Live frames until the alarm. Returns the nanoseconds taken.
static __u64 run_source(unsigned int index, double seconds)
{
	struct xdp_md context = { .data_end = FRAME_LENGTH, .ingress_ifindex = index };
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = settings.frame, .data_size_in = FRAME_LENGTH, .ctx_in = &context,
		    .ctx_size_in = sizeof(context), .repeat = ENDLESS, .flags = BPF_F_TEST_XDP_LIVE_FRAMES,
		    .batch_size = settings.stamped ? STAMPED_BATCH : BATCH);
	__u64 began = now();

	set_alarm(seconds);
	if (bpf_prog_test_run_opts(program("source"), &options) < 0 && errno != EINTR)
		die("cannot send live frames (Linux 5.18 or newer)");
	set_alarm(0);
	return now() - began;
}

static __u64 bucket_floor(unsigned int bucket)
{
	unsigned int shift = bucket / LATENCY_STEPS;

	return shift ? (__u64)(LATENCY_STEPS + bucket % LATENCY_STEPS) << (shift - 1) : bucket;
}

static void print_latency(const struct arrived *arrived)
{
	const char *separator = "";

	printf("\"latency\": [");
	for (unsigned int bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
		if (!arrived->latency[bucket])
			continue;
		printf("%s[%llu, %llu]", separator, bucket_floor(bucket), arrived->latency[bucket]);
		separator = ", ";
	}
	printf("]");
}

static __u64 gap(double rate)
{
	return rate > 0 ? 1e9 / rate * (1 << PACE_SHIFT) : 0;
}

static void send_frames(unsigned int index, double rate, double seconds)
{
	static struct sent before, after;
	static struct arrived arrived;
	__u64 took;

	settings.gap = gap(rate);
	if (bpf_map_update_elem(map("settings"), &only, &settings, 0) < 0)
		die("cannot set what to send");
	clear_counts();
	read_counts(&before, &arrived);
	took = run_source(index, seconds);
	usleep(DRAIN_US);
	read_counts(&after, &arrived);
	printf("{\"sent\": %llu, \"flood\": %llu, \"arrived\": %llu, \"openings\": %llu, \"checked\": %llu, \"bad\": %llu, \"seconds\": %.6f, ",
	       after.frames - before.frames, after.flood - before.flood, arrived.frames, arrived.openings, arrived.checked,
	       arrived.bad, took / 1e9);
	print_latency(&arrived);
	printf("}\n");
	fflush(stdout);
}

static void ignore(int signal)
{
	(void)signal;
}

static void obey(const char *line, unsigned int index)
{
	double rate, seconds, flood = 0;
	char verb[8];
	int read = sscanf(line, "%7s %lf %lf %u %u %lf", verb, &rate, &seconds, &settings.flows, &settings.stamped, &flood);

	if (read < 5 || !settings.flows) {
		fprintf(stderr, "traffic: what is %s", line);
		exit(2);
	}
	make_packet(settings.frame, !strcmp(verb, "open"));
	make_packet(settings.opening, 1);
	settings.flooding = read == 6;
	settings.flood_gap = gap(flood);
	send_frames(index, rate, seconds);
}

int main(int count, char **argument)
{
	struct sigaction on_alarm = { .sa_handler = ignore };
	char line[256];
	unsigned int index;

	if (count != 13) {
		fprintf(stderr, "traffic: twelve arguments are needed, see the head of traffic.c\n");
		return 2;
	}
	sigaction(SIGALRM, &on_alarm, NULL);
	settings.tcp = !strcmp(argument[1], "tcp");
	load(argument[2]);
	enter(argument[5]);
	attach("sink", argument[6]);
	enter(argument[3]);
	attach("absorb", argument[4]);
	index = interface(argument[4]);
	make_ethernet(settings.frame, argument[7], argument[8]);
	make_ethernet(settings.opening, argument[7], argument[8]);
	source = address(argument[9]);
	destination = address(argument[10]);
	settings.expected[0] = address(argument[11]);
	settings.expected[1] = address(argument[12]);
	printf("{\"ready\": true}\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		obey(line, index);
	return 0;
}
