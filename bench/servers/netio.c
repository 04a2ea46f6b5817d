// The servers of the benchmark, as the README tells a user to write them.
//
//     cc -O2 -I. bench/servers/netio.c -o netio -lpthread
//     ./netio PORT echo|sink|source|fan|udp [--backend NAME]
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char block[256 * 1024]; // what `source` sends, again and again

static void echo_data(netio_conn c, const void *data, size_t len)
{
    netio_conn_write(c, data, len);
}

static void source_more(netio_conn c)
{
    while (!netio_conn_congested(c) && netio_conn_write(c, block, sizeof block) == 0) {}
}

struct line {
    netio_conn from;
    const void *data;
    size_t len;
};

static void fan_one(void *user, netio_conn c)
{
    const struct line *l = (const struct line *)user;
    if (!netio_conn_same(c, l->from)) netio_conn_write(c, l->data, l->len);
}

static void fan_data(netio_conn c, const void *data, size_t len)
{
    struct line l;
    l.from = c;
    l.data = data;
    l.len = len;
    netio_conn_each(netio_conn_loop(c), fan_one, &l);
}

static void udp_echo(netio_udp u, netio_datagram *msgs, size_t count)
{
    netio_udp_send_batch(u, msgs, count);
}

static const netio_handler *handler_of(const char *mode)
{
    static const netio_handler echo = {.on_data = echo_data};
    static const netio_handler sink = {.on_data = NULL};
    static const netio_handler source = {.on_open = source_more, .on_drain = source_more};
    static const netio_handler fan = {.on_data = fan_data};
    if (strcmp(mode, "echo") == 0) return &echo;
    if (strcmp(mode, "sink") == 0) return &sink;
    if (strcmp(mode, "source") == 0) return &source;
    return strcmp(mode, "fan") == 0 ? &fan : NULL;
}

static int backend_of(const char *name)
{
    for (int i = NETIO_BACKEND_AUTO; i <= NETIO_BACKEND_AFD; i++)
        if (strcmp(name, netio_backend_name(i)) == 0) return i;
    return -1;
}

static int serve(const char *port, const char *mode, const char *backend)
{
    static const netio_udp_handler datagrams = {.on_datagrams = udp_echo};
    char address[NETIO_ADDR_TEXT];
    netio_loop *loop;
    netio_loop_opts opts = {0};
    opts.backend = backend_of(backend);
    if (opts.backend < 0) return NETIO_EINVAL;
    int err = netio_loop_create(&loop, &opts);
    if (err < 0) return err;
    snprintf(address, sizeof address, "127.0.0.1:%s", port);
    if (strcmp(mode, "udp") == 0) err = netio_udp_open(NULL, loop, address, &datagrams, NULL);
    else if (!handler_of(mode)) err = NETIO_EINVAL;
    else err = netio_listener_open(NULL, loop, address, handler_of(mode), NULL);
    if (err == 0) err = netio_loop_run(loop);
    netio_loop_destroy(loop);
    return err;
}

int main(int argc, char **argv)
{
    const char *backend = argc == 5 && strcmp(argv[3], "--backend") == 0 ? argv[4] : "auto";
    if (argc != 3 && argc != 5) {
        fprintf(stderr, "usage: %s PORT echo|sink|source|fan|udp [--backend NAME]\n", argv[0]);
        return 2;
    }
    int err = serve(argv[1], argv[2], backend);
    if (err < 0) fprintf(stderr, "%s\n", netio_strerror(err));
    return err < 0;
}
