// SPDX-License-Identifier: Apache-2.0
// asker ADDRESS CONNECTIONS REQUESTS_PER_SECOND SECONDS
// Asks for / over HTTP connections that stay open, at a steady rate whatever the answers do, and prints as JSON how long each
// answer took from the moment at which its request was due.

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024
#define PORT 80
// Answers to the last requests.
#define PATIENCE_NS 5000000000ULL
#define STEPS 32
#define BUCKETS (40 * STEPS)

// What every answer ends with.
static const char page[] = "ok\n";
static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

struct connection {
	int socket;
	unsigned int got; // bytes of the answer so far
	unsigned long long due; // of the request under way; 0: idle
};

static struct connection connections[CONNECTIONS_MAX];
static unsigned int idle[CONNECTIONS_MAX], idle_count, answer_length;
static unsigned long long latency[BUCKETS], answered, asked;

static void die(const char *what)
{
	fprintf(stderr, "asker: %s: %s\n", what, strerror(errno));
	exit(1);
}

static unsigned long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

static void note(unsigned long long nanoseconds)
{
	unsigned int bit = 63 - __builtin_clzll(nanoseconds | STEPS);
	unsigned int bucket = (bit - 5) * STEPS + (nanoseconds >> (bit - 5)) % (2 * STEPS);

	latency[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static unsigned long long bucket_floor(unsigned int bucket)
{
	unsigned int shift = bucket / STEPS;

	return shift ? (unsigned long long)(STEPS + bucket % STEPS) << (shift - 1) : bucket;
}

static void ask(struct connection *connection)
{
	if (send(connection->socket, request, sizeof(request) - 1, MSG_NOSIGNAL) != sizeof(request) - 1)
		die("cannot send a request");
}

// Every answer is as long as the first.
static void learn_answer(struct connection *connection)
{
	char answer[4096];
	ssize_t got, length = 0;

	ask(connection);
	do {
		got = recv(connection->socket, answer + length, sizeof(answer) - length, 0);
		if (got <= 0)
			die("no answer");
		length += got;
	} while (length < (ssize_t)sizeof(page) || memcmp(answer + length - sizeof(page) + 1, page, sizeof(page) - 1));
	if (memcmp(answer, "HTTP/1.1 200", 12))
		die("no answer 200");
	answer_length = length;
}

static void open_connection(struct connection *connection, const char *server, int poll)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = connection };
	struct timeval patience = { .tv_sec = 30 };
	int one = 1;

	connection->socket = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(connection->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (!inet_aton(server, &address.sin_addr) || connect(connection->socket, (void *)&address, sizeof(address)) < 0)
		die(server);
	learn_answer(connection);
	if (fcntl(connection->socket, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, connection->socket, &event) < 0)
		die("cannot watch a connection");
}

static void read_answer(struct connection *connection)
{
	char answer[4096];
	ssize_t got = recv(connection->socket, answer, sizeof(answer), 0);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0 || !connection->due)
		die("a connection ended");
	connection->got += got;
	if (connection->got < answer_length)
		return;
	note(now() - connection->due);
	answered++;
	connection->got = 0;
	connection->due = 0;
	idle[idle_count++] = connection - connections;
}

static void ask_what_is_due(unsigned long long *due, unsigned long long gap, unsigned long long time)
{
	while (*due <= time && idle_count) {
		struct connection *connection = &connections[idle[--idle_count]];

		connection->due = *due;
		*due += gap;
		ask(connection);
		asked++;
	}
}

static void set_timer(int timer, unsigned long long at)
{
	struct itimerspec time = { .it_value = { at / 1000000000ULL, at % 1000000000ULL } };

	timerfd_settime(timer, TFD_TIMER_ABSTIME, &time, NULL);
}

static void run(int poll, int timer, unsigned long long gap, unsigned long long seconds_ns)
{
	struct epoll_event events[64];
	unsigned long long due = now(), end = due + seconds_ns, time = due;

	while (time < end || (answered < asked && time < end + PATIENCE_NS)) {
		if (time < end)
			ask_what_is_due(&due, gap, time);
		set_timer(timer, time < end && idle_count ? due : time + 1000000);
		int ready = epoll_wait(poll, events, 64, 100);

		for (int i = 0; i < ready; i++)
			if (events[i].data.ptr)
				read_answer(events[i].data.ptr);
		time = now();
	}
}

static void print_result(double seconds)
{
	const char *separator = "";

	printf("{\"asked\": %llu, \"answered\": %llu, \"seconds\": %f, \"latency\": [", asked, answered, seconds);
	for (unsigned int bucket = 0; bucket < BUCKETS; bucket++) {
		if (!latency[bucket])
			continue;
		printf("%s[%llu, %llu]", separator, bucket_floor(bucket), latency[bucket]);
		separator = ", ";
	}
	printf("]}\n");
}

int main(int count, char **argument)
{
	int poll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct epoll_event tick = { .events = EPOLLIN | EPOLLET };
	unsigned int wanted = count == 5 ? atoi(argument[2]) : 0;
	double rate = count == 5 ? atof(argument[3]) : 0, seconds = count == 5 ? atof(argument[4]) : 0;

	if (!wanted || wanted > CONNECTIONS_MAX || rate <= 0 || seconds <= 0) {
		fprintf(stderr, "asker: an address, connections, requests a second and seconds are needed\n");
		return 2;
	}
	for (unsigned int i = 0; i < wanted; i++) {
		open_connection(&connections[i], argument[1], poll);
		idle[idle_count++] = i;
	}
	if (epoll_ctl(poll, EPOLL_CTL_ADD, timer, &tick) < 0)
		die("cannot watch the timer");
	run(poll, timer, 1e9 / rate, seconds * 1e9);
	print_result(seconds);
	return 0;
}
