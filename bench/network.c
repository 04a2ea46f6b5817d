// network.c: how many messages a second the network in memory delivers, on one core.
//
//     cc -O2 -I. bench/network.c -lpthread -o network && ./network      a few seconds
//     ./network --quick                                   a tenth of it: shows that it works
//
// A message counts when a callback gets it: 64 bytes to and fro, each sent when the one before has
// come, over connections as the README tells to write them; 32 datagrams under way to and fro. The
// best of several rounds counts: what disturbs one only ever makes it slower. Needs POSIX's clock;
// ends with 1 if the bar of a million is missed, --quick never does.
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ENDS = 50, MESSAGE = 64, DATAGRAMS = 32 };

static uint64_t delivered, wanted;
static netio_loop *loops[2];
static char message[MESSAGE];

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(int err, const char *what)
{
    if (err >= 0) return;
    fprintf(stderr, "network: %s: %s\n", what, netio_strerror(err));
    exit(2);
}

static void count(uint64_t n)
{
    delivered += n;
    if (delivered >= wanted) netio_loop_stop(loops[0]);
}

static void on_open(netio_conn c) { netio_conn_write(c, message, sizeof message); }

static void on_data(netio_conn c, const void *data, size_t len)
{
    count(1);
    netio_conn_write(c, data, len);
}

static const netio_handler server = {.on_data = on_data};
static const netio_handler client = {.on_open = on_open, .on_data = on_data};

static void on_datagrams(netio_udp u, netio_datagram *msgs, size_t n)
{
    count(n);
    netio_udp_send_batch(u, msgs, n);
}

static const netio_udp_handler point = {.on_datagrams = on_datagrams};

static void streams(void)
{
    must(netio_listener_open(NULL, loops[0], "10.0.0.1:7", &server, NULL), "listen");
    for (int i = 0; i < ENDS; i++)
        must(netio_conn_dial(NULL, loops[1], "10.0.0.1:7", &client, NULL), "dial");
}

static void datagrams(void)
{
    netio_udp a, b;
    netio_addr to;
    must(netio_udp_open(&a, loops[0], "10.0.0.1:7", &point, NULL), "bind");
    must(netio_udp_open(&b, loops[1], "10.0.0.2:7", &point, NULL), "bind");
    must(netio_udp_addr(a, &to), "address");
    for (int i = 0; i < DATAGRAMS; i++) must(netio_udp_send(b, message, MESSAGE, &to), "send");
}

// CPU time of so many messages, in seconds.
static double measure(void (*start)(void), const netio_link *link, bool one_loop, uint64_t messages)
{
    static const char *const hosts[] = {"10.0.0.1", "10.0.0.2"};
    netio_network *net;
    netio_network_opts o;
    netio_loop_opts lo;
    memset(&o, 0, sizeof o);
    memset(&lo, 0, sizeof lo);
    o.link = *link;
    must(netio_network_create(&net, &o), "network");
    lo.network = net;
    for (int i = 0; i < 2; i++) {
        lo.host = hosts[i];
        must(netio_loop_create(&loops[i], &lo), "loop");
    }
    netio_loop *second = loops[1];
    if (one_loop) loops[1] = loops[0];
    start();
    delivered = 0;
    wanted = messages / 10; // to warm up
    must(netio_network_run(net, -1), "run");
    delivered = 0;
    wanted = messages;
    double begin = cpu_s();
    must(netio_network_run(net, -1), "run");
    double took = cpu_s() - begin;
    if (delivered < wanted) must(NETIO_EIO, "it stopped early");
    netio_loop_destroy(loops[0]);
    netio_loop_destroy(second);
    must(netio_network_destroy(net), "destroy");
    return took;
}

int main(int argc, char **argv)
{
    static const netio_link smooth = {0}, far = {.latency_ms = 20},
                            rough = {.latency_ms = 20, .jitter_ms = 5, .bandwidth = 10000000};
    static const struct {
        const char *name;
        void (*start)(void);
        const netio_link *link;
        bool one_loop;
        double bar; // million a second; 0: none
    } rows[] = {{"50 connections, one loop", streams, &smooth, true, 1},
                {"50 connections, two loops", streams, &smooth, false, 1},
                {"50 connections, 20 ms", streams, &far, false, 0},
                {"50 connections, 20 ms, 10 MB/s", streams, &rough, false, 0},
                {"32 datagrams, two loops", datagrams, &smooth, false, 1},
                {"32 datagrams, 20 ms, 5 ms jitter", datagrams, &rough, false, 0}};
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0, missed = false;
    uint64_t messages = quick ? 50000 : 500000;
    printf("%-36s %12s\n", "64 bytes to and fro", "million/s");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double best = 1e9;
        for (int round = 0; round < (quick ? 1 : 5); round++) {
            double took = measure(rows[i].start, rows[i].link, rows[i].one_loop, messages);
            if (took < best) best = took;
        }
        double speed = (double)messages / best / 1e6;
        bool low = rows[i].bar > 0 && speed < rows[i].bar;
        printf("%-36s %12.2f%s\n", rows[i].name, speed, low ? "  below the bar of 1" : "");
        missed = missed || low;
    }
    return missed && !quick;
}
