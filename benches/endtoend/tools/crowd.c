// SPDX-License-Identifier: Apache-2.0
// crowd OBJECT CLIENT_NAMESPACE CLIENT_INTERFACE SERVER_NAMESPACE SERVER_INTERFACE CLIENT_MAC NEXT_MAC
//       FIRST_CLIENT VIRTUAL_ADDRESS SERVER SERVER HELD OTHERS
// HELD clients whose connections stay, and OTHERS whose connections end after one request. What is not answered is sent again.
// Commands come by stdin, one a line, each answered by a line of JSON, while all goes on:
//   open RATE    opens connections that stay, so many a second
//   churn RATE   opens such as end again; 0: no more
//   ask RATE     asks once on each of those that stay
//   count        only says how far everything is
//   servers      says how many of those that stay each server has
// The end of stdin is the end.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "crowd.h"
#include "process.h"

#define TURN_NS 500000
// Of one window in one turn: a veth's ring holds 256 frames.
#define BURST 50
// What is caught up with, should something have kept this program from running.
#define ARREARS 2000
#define LOOK_MS 50
// Without an answer a frame is sent again after a second, then after two, and so on.
#define PATIENCE_MS 1000
#define TRIES 6

struct frame {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct tcphdr tcp;
	__u64 stamp;
	__be32 number;
	__be32 request;
} __attribute__((packed));

// What the sender knows of a connection.
struct note {
	__u32 sent_ms;
	__u16 request;
	__u8 tries;
	__u8 given_up;
};

// Connections that the same is done with, in their order.
struct window {
	__u32 first, end;
	__u32 tail, head; // all before tail are done, all from head on are still to come
	double rate, owed;
	__u64 sent, again, lost;
	int (*is_done)(__u32 number);
	void (*send)(__u32 number);
};

static struct bpf_object *object;
static struct people people;
static struct connection *connections;
static struct note *notes;
static struct frame template, queue[BURST];
static unsigned int queued;
static int out;
static __u64 refused;
static __u32 total;
static const __u32 only;

static __u32 address(const char *text)
{
	struct in_addr parsed;

	if (!inet_aton(text, &parsed))
		die(text);
	return parsed.s_addr;
}

static __u64 now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

static int map(const char *name)
{
	int fd = bpf_object__find_map_fd_by_name(object, name);

	if (fd < 0)
		die(name);
	return fd;
}

static void load(const char *path)
{
	size_t size = (size_t)total * sizeof(*connections), page = getpagesize();

	object = bpf_object__open_file(path, NULL);
	if (!object || bpf_map__set_max_entries(bpf_object__find_map_by_name(object, "connections"), total) < 0 ||
	    bpf_object__load(object) < 0 || bpf_map_update_elem(map("people"), &only, &people, 0) < 0)
		die(path);
	connections = mmap(NULL, (size + page - 1) / page * page, PROT_READ, MAP_SHARED, map("connections"), 0);
	notes = calloc(total, sizeof(*notes));
	if (connections == MAP_FAILED || !notes)
		die("no memory for the connections");
}

static void attach(const char *name, const char *interface)
{
	struct bpf_program *program = bpf_object__find_program_by_name(object, name);
	unsigned int index = if_nametoindex(interface);

	if (!program || !index || bpf_xdp_attach(index, bpf_program__fd(program), XDP_FLAGS_DRV_MODE, NULL) < 0)
		die(interface);
}

static void open_socket(const char *interface, const char *client_mac, const char *next_mac)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(interface) };
	struct ether_addr *client = ether_aton(client_mac);
	int on = 1;

	// Protocol 0: nothing is received.
	out = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (out < 0 || setsockopt(out, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) < 0 ||
	    bind(out, (void *)&to, sizeof(to)) < 0 || !client)
		die(interface);
	memcpy(template.ethernet.h_source, client, ETH_ALEN);
	memcpy(template.ethernet.h_dest, ether_aton(next_mac), ETH_ALEN);
	template.ethernet.h_proto = htons(ETH_P_IP);
	template.ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP, .daddr = people.virtual_address };
	template.tcp = (struct tcphdr){ .dest = htons(SERVICE_PORT), .window = 0xffff };
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

// What a veth does not take is lost, as it would be on a cable.
static void flush(void)
{
	struct iovec pieces[BURST];
	struct mmsghdr messages[BURST] = { 0 };

	for (unsigned int i = 0; i < queued; i++) {
		pieces[i] = (struct iovec){ &queue[i], sizeof(queue[i]) };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &pieces[i], .msg_iovlen = 1 };
	}
	for (unsigned int at = 0; at < queued;) {
		int taken = sendmmsg(out, messages + at, queued - at, 0);

		if (taken < 0 && errno != ENOBUFS && errno != EINTR)
			die("cannot send");
		refused += taken < 0;
		at += taken < 0 ? 1 : taken;
	}
	queued = 0;
}

static void send_segment(__u32 number, __u8 flags, __u32 requests, int with_data)
{
	struct frame *frame = &queue[queued++];
	size_t size = sizeof(frame->tcp) + DATA_LENGTH;

	*frame = template;
	frame->ip.saddr = htonl(people.client + number / FLOWS_PER_ADDRESS);
	frame->ip.tot_len = htons(sizeof(frame->ip) + size);
	frame->ip.check = checksum(add(0, &frame->ip, sizeof(frame->ip)));
	frame->tcp.source = htons(FIRST_SOURCE_PORT + number % FLOWS_PER_ADDRESS);
	frame->tcp.seq = htonl(CLIENT_SEQUENCE + !(flags & SYN) + requests * DATA_LENGTH);
	if (flags & ACK)
		frame->tcp.ack_seq = htonl(connections[number].server_sequence + 1 + requests * DATA_LENGTH);
	((__u8 *)&frame->tcp)[13] = flags;
	frame->tcp.doff = with_data ? WITH_DATA : WITH_OPTIONS;
	if (with_data) {
		frame->stamp = now();
		frame->number = htonl(number);
		frame->request = htonl(requests);
	} else {
		memset(&frame->stamp, NO_OPERATION, DATA_LENGTH);
	}
	frame->tcp.check = checksum(add(add(IPPROTO_TCP + size, &frame->ip.saddr, 8), &frame->tcp, size));
	if (queued == BURST)
		flush();
}

static int is_open(__u32 number)
{
	return connections[number].state != UNOPENED;
}

static void send_opening(__u32 number)
{
	send_segment(number, SYN, 0, 0);
}

static int is_answered(__u32 number)
{
	return connections[number].answered != notes[number].request;
}

static void ask(__u32 number)
{
	if (!notes[number].tries)
		notes[number].request = connections[number].answered;
	if (is_open(number))
		send_segment(number, ACK | PSH, notes[number].request, 1);
}

static int is_closed(__u32 number)
{
	return connections[number].state == CLOSED;
}

static void send_next(__u32 number)
{
	switch (connections[number].state) {
	case UNOPENED:
		return send_segment(number, SYN, 0, 0);
	case OPEN:
		return send_segment(number, ACK | PSH, 0, 1);
	default:
		return send_segment(number, ACK | FIN, 1, 0);
	}
}

enum { OPENING, CHURNING, ASKING, WINDOWS };

static struct window windows[WINDOWS] = {
	[OPENING] = { .is_done = is_open, .send = send_opening },
	[CHURNING] = { .is_done = is_closed, .send = send_next },
	[ASKING] = { .is_done = is_answered, .send = ask },
};

static void advance(struct window *window, __u32 ms, double seconds)
{
	window->owed += window->rate * seconds;
	if (window->owed > ARREARS)
		window->owed = ARREARS;
	for (int left = BURST; left && window->owed >= 1 && window->head < window->end; left--, window->owed--) {
		notes[window->head] = (struct note){ .sent_ms = ms };
		window->send(window->head++);
		window->sent++;
	}
}

// Sends again what is not done. Those behind the first young one are young as well, but for those that were sent again.
static void look_after(struct window *window, __u32 ms)
{
	__u32 left = BURST;

	while (window->tail < window->head && (notes[window->tail].given_up || window->is_done(window->tail)))
		window->tail++;
	for (__u32 number = window->tail; number < window->head && left; number++) {
		struct note *note = &notes[number];

		if (!note->tries && ms - note->sent_ms < PATIENCE_MS)
			return;
		if (note->given_up || window->is_done(number) || ms - note->sent_ms < PATIENCE_MS * (note->tries + 1))
			continue;
		if (note->tries == TRIES) {
			note->given_up = 1;
			window->lost++;
			continue;
		}
		note->tries++;
		note->sent_ms = ms;
		window->send(number);
		window->again++;
		left--;
	}
}

static void print_latency(const struct events *count)
{
	const char *separator = "";

	printf(", \"latency\": [");
	for (unsigned int bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
		unsigned int shift = bucket / LATENCY_STEPS;
		__u64 floor = shift ? (__u64)(LATENCY_STEPS + bucket % LATENCY_STEPS) << (shift - 1) : bucket;

		if (!count->latency[bucket])
			continue;
		printf("%s[%llu, %llu]", separator, floor, count->latency[bucket]);
		separator = ", ";
	}
	printf("]");
}

static void print_counts(void)
{
	static const char *const names[] = { "open", "churn", "ask" };
	static struct events count;

	if (bpf_map_lookup_elem(map("events"), &only, &count) < 0)
		die("cannot read the counts");
	printf("{\"opened\": %llu, \"closed\": %llu, \"answered\": %llu, \"wrong\": %llu, \"strange\": %llu, \"refused\": %llu",
	       count.opened, count.closed, count.answered, count.wrong, count.strange, refused);
	for (int i = 0; i < WINDOWS; i++)
		printf(", \"%s\": {\"sent\": %llu, \"waiting\": %u, \"left\": %u, \"again\": %llu, \"lost\": %llu}", names[i],
		       windows[i].sent, windows[i].head - windows[i].tail, windows[i].end - windows[i].head, windows[i].again,
		       windows[i].lost);
	print_latency(&count);
	printf("}\n");
	fflush(stdout);
}

static void print_servers(void)
{
	__u64 counts[SERVERS] = { 0 };

	for (__u32 number = 0; number < people.held; number++)
		if (is_open(number))
			counts[connections[number].server_sequence & 1]++;
	printf("{\"servers\": [%llu, %llu]}\n", counts[0], counts[1]);
	fflush(stdout);
}

static void obey(const char *line)
{
	double rate = 0;
	char verb[8];

	if (sscanf(line, "%7s %lf", verb, &rate) < 1)
		return;
	if (!strcmp(verb, "servers"))
		return print_servers();
	if (!strcmp(verb, "open"))
		windows[OPENING].rate = rate;
	if (!strcmp(verb, "churn"))
		windows[CHURNING].rate = rate;
	if (!strcmp(verb, "ask")) {
		windows[ASKING].head = windows[ASKING].tail = windows[ASKING].first;
		windows[ASKING].rate = rate;
		windows[ASKING].owed = 0;
	}
	print_counts();
}

// Obeys what is there. Returns 0 at the end of the commands.
static int read_commands(void)
{
	static char text[256];
	static size_t length;
	ssize_t got = read(STDIN_FILENO, text + length, sizeof(text) - 1 - length);
	char *end;

	if (got <= 0)
		return 0;
	length += got;
	text[length] = 0;
	while ((end = strchr(text, '\n'))) {
		*end++ = 0;
		obey(text);
		length -= end - text;
		memmove(text, end, length + 1);
	}
	return 1;
}

static void work(void)
{
	__u64 before = now(), looked = 0;

	for (;;) {
		struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
		struct timespec pause = { .tv_nsec = TURN_NS };
		__u64 time;

		if (ppoll(&input, 1, &pause, NULL) > 0 && !read_commands())
			return;
		time = now();
		for (int i = 0; i < WINDOWS; i++) {
			advance(&windows[i], time / 1000000, (time - before) / 1e9);
			if (time - looked >= LOOK_MS * 1000000ULL)
				look_after(&windows[i], time / 1000000);
		}
		if (time - looked >= LOOK_MS * 1000000ULL)
			looked = time;
		flush();
		before = time;
	}
}

int main(int count, char **argument)
{
	if (count != 14) {
		fprintf(stderr, "crowd: thirteen arguments are needed, see the head of crowd.c\n");
		return 2;
	}
	people = (struct people){ .client = ntohl(address(argument[8])), .virtual_address = address(argument[9]),
				  .server = { address(argument[10]), address(argument[11]) }, .held = atoi(argument[12]) };
	total = people.held + atoi(argument[13]);
	windows[OPENING].end = windows[ASKING].end = people.held;
	windows[ASKING].head = windows[ASKING].tail = people.held;
	windows[CHURNING].first = windows[CHURNING].head = windows[CHURNING].tail = people.held;
	windows[CHURNING].end = total;
	load(argument[1]);
	enter(argument[4]);
	attach("servers", argument[5]);
	enter(argument[2]);
	attach("clients", argument[3]);
	open_socket(argument[3], argument[6], argument[7]);
	printf("{\"ready\": true}\n");
	fflush(stdout);
	work();
	return 0;
}
