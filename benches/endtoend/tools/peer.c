// SPDX-License-Identifier: Apache-2.0
// peer rewrite|forward OBJECT CLIENT_INTERFACE CLIENT_MAC SERVER_INTERFACE SERVER_MAC VIRTUAL_ADDRESS SERVER SERVER
// rewrite: attaches the XDP program that translates and redirects. forward: moves every packet from the AF_XDP socket of one
// interface to that of the other with new Ethernet addresses and nothing else, in copy mode. Until SIGTERM.

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <xdp/xsk.h>

#include "peer.h"

#define BATCH 64
#define RING 2048
#define FRAME_SIZE XSK_UMEM__DEFAULT_FRAME_SIZE
// Each port's fill and receive rings full, and as many on their way out.
#define FRAMES (SIDES * RING * 2)

struct port {
	struct xsk_socket *socket;
	struct xsk_ring_prod fill;
	struct xsk_ring_cons received;
	struct xsk_ring_prod transmit;
	struct xsk_ring_cons completed;
	unsigned int on_the_way; // handed to the kernel for transmission and not yet back
};

static volatile sig_atomic_t stopping;
static struct bpf_object *object;
static struct wiring wiring;
static struct port ports[SIDES];
static struct xsk_umem *umem;
static __u8 *area;
static __u64 pool[FRAMES];
static unsigned int pooled;

static void die(const char *what)
{
	fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void stop(int signal)
{
	(void)signal;
	stopping = 1;
}

static __u32 address(const char *text)
{
	struct in_addr parsed;

	if (!inet_aton(text, &parsed))
		die(text);
	return parsed.s_addr;
}

static void own_mac(const char *interface, __u8 *mac)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		die(interface);
	close(fd);
	memcpy(mac, request.ifr_hwaddr.sa_data, ETH_ALEN);
}

static void wire(enum side side, const char *interface, const char *next_mac)
{
	struct ether_addr *parsed = ether_aton(next_mac);

	wiring.interface[side] = if_nametoindex(interface);
	if (!wiring.interface[side] || !parsed)
		die(interface);
	memcpy(wiring.next_mac[side], parsed, ETH_ALEN);
	own_mac(interface, wiring.router_mac[side]);
}

static void attach(const char *name)
{
	static const __u32 only;
	struct bpf_program *program = bpf_object__find_program_by_name(object, name);
	int map = bpf_object__find_map_fd_by_name(object, "wiring");

	if (!program || map < 0 || bpf_map_update_elem(map, &only, &wiring, 0) < 0)
		die(name);
	for (int side = 0; side < SIDES; side++)
		if (bpf_xdp_attach(wiring.interface[side], bpf_program__fd(program), XDP_FLAGS_DRV_MODE, NULL) < 0)
			die("cannot attach to the interface");
}

static void detach(void)
{
	for (int side = 0; side < SIDES; side++)
		bpf_xdp_detach(wiring.interface[side], XDP_FLAGS_DRV_MODE, NULL);
}

static void refill(struct port *port)
{
	__u32 wanted = xsk_prod_nb_free(&port->fill, BATCH), at;

	wanted = wanted < pooled ? wanted : pooled;
	if (!wanted || !xsk_ring_prod__reserve(&port->fill, wanted, &at))
		return;
	for (__u32 i = 0; i < wanted; i++)
		*xsk_ring_prod__fill_addr(&port->fill, at + i) = pool[--pooled];
	xsk_ring_prod__submit(&port->fill, wanted);
}

static void make_umem(void)
{
	const struct xsk_umem_config config = { .fill_size = RING, .comp_size = RING, .frame_size = FRAME_SIZE };

	area = mmap(NULL, FRAMES * FRAME_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (area == MAP_FAILED)
		die("no memory for frames");
	if (xsk_umem__create(&umem, area, FRAMES * FRAME_SIZE, &ports[CLIENTS].fill, &ports[CLIENTS].completed, &config))
		die("cannot register frames");
	for (pooled = 0; pooled < FRAMES; pooled++)
		pool[pooled] = (__u64)pooled * FRAME_SIZE;
}

static void open_port(enum side side, const char *interface)
{
	struct port *port = &ports[side];
	const struct xsk_socket_config config = { .rx_size = RING, .tx_size = RING,
						  .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
						  .bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP };
	int map = bpf_object__find_map_fd_by_name(object, "sockets");
	__u32 key = side;
	int fd;

	if (xsk_socket__create_shared(&port->socket, interface, 0, umem, &port->received, &port->transmit, &port->fill,
				      &port->completed, &config))
		die("cannot open the AF_XDP socket");
	fd = xsk_socket__fd(port->socket);
	if (map < 0 || bpf_map_update_elem(map, &key, &fd, 0) < 0)
		die("cannot enter the socket");
	while (xsk_prod_nb_free(&port->fill, RING) >= BATCH)
		refill(port);
}

// A kick sends at most 32 frames, and fewer while the other end is slow to take them.
static void kick(struct port *port)
{
	for (int kicks = BATCH / 32; kicks && xsk_prod_nb_free(&port->transmit, RING) < RING; kicks--)
		sendto(xsk_socket__fd(port->socket), NULL, 0, MSG_DONTWAIT, NULL, 0);
}

static void reap(struct port *port)
{
	__u32 at, count = xsk_ring_cons__peek(&port->completed, BATCH, &at);

	for (__u32 i = 0; i < count; i++)
		pool[pooled++] = *xsk_ring_cons__comp_addr(&port->completed, at + i) / FRAME_SIZE * FRAME_SIZE;
	xsk_ring_cons__release(&port->completed, count);
	port->on_the_way -= count;
}

static void readdress(enum side out, const struct xdp_desc *frame)
{
	struct ethhdr *ethernet = xsk_umem__get_data(area, frame->addr);

	memcpy(ethernet->h_dest, wiring.next_mac[out], ETH_ALEN);
	memcpy(ethernet->h_source, wiring.router_mac[out], ETH_ALEN);
}

// Moves a batch from one side to the other. Returns how many packets there were.
static __u32 forward(enum side in, enum side out)
{
	struct port *from = &ports[in], *to = &ports[out];
	__u32 room = xsk_prod_nb_free(&to->transmit, BATCH), source, target, count;

	count = room ? xsk_ring_cons__peek(&from->received, room < BATCH ? room : BATCH, &source) : 0;
	if (count && xsk_ring_prod__reserve(&to->transmit, count, &target) == count) {
		for (__u32 i = 0; i < count; i++) {
			const struct xdp_desc *frame = xsk_ring_cons__rx_desc(&from->received, source + i);

			readdress(out, frame);
			*xsk_ring_prod__tx_desc(&to->transmit, target + i) = *frame;
		}
		xsk_ring_prod__submit(&to->transmit, count);
		xsk_ring_cons__release(&from->received, count);
		to->on_the_way += count;
	}
	if (to->on_the_way) {
		kick(to);
		reap(to);
	}
	refill(from);
	return count;
}

static void forward_all(void)
{
	struct pollfd sockets[SIDES];

	for (int side = 0; side < SIDES; side++)
		sockets[side] = (struct pollfd){ .fd = xsk_socket__fd(ports[side].socket), .events = POLLIN };
	while (!stopping)
		if (!(forward(CLIENTS, SERVERS) + forward(SERVERS, CLIENTS)))
			poll(sockets, SIDES, 100);
}

int main(int count, char **argument)
{
	struct sigaction on_end = { .sa_handler = stop };
	int forwards;

	if (count != 10) {
		fprintf(stderr, "peer: nine arguments are needed, see the head of peer.c\n");
		return 2;
	}
	forwards = !strcmp(argument[1], "forward");
	sigaction(SIGTERM, &on_end, NULL);
	sigaction(SIGINT, &on_end, NULL);
	wire(CLIENTS, argument[3], argument[4]);
	wire(SERVERS, argument[5], argument[6]);
	wiring.virtual_address = address(argument[7]);
	wiring.server[0] = address(argument[8]);
	wiring.server[1] = address(argument[9]);
	object = bpf_object__open_file(argument[2], NULL);
	if (!object || bpf_object__load(object) < 0)
		die(argument[2]);
	if (forwards) {
		make_umem();
		open_port(CLIENTS, argument[3]);
		open_port(SERVERS, argument[5]);
	}
	attach(forwards ? "steer" : "rewrite");
	printf("ready\n");
	fflush(stdout);
	if (forwards)
		forward_all();
	else
		while (!stopping)
			pause();
	detach();
	return 0;
}
