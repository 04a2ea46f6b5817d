// A TCP proxy: whoever connects here talks to the target. Each direction ends by itself
// (half-close), and is read no faster than the other side takes it (back-pressure).
//
// netio_conn_relay does all of that in one call, and on Linux the bytes never leave the kernel.
// With --by-hand callbacks do the same, and with --log they also show what passes: time, number of
// the link, direction, length, and the beginning. At the end of a link stands how much passed.
//
// Build  cc tcp_proxy.c -o tcp_proxy                  (Windows: add -lws2_32)
// Try    ./tcp_proxy 127.0.0.1:8080 example.com:80    and: curl -H Host:example.com 127.0.0.1:8080
//        ./tcp_proxy --log 127.0.0.1:8080 127.0.0.1:7777
#define NETIO_IMPLEMENTATION
#include "../../netio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENT, SERVER };

struct link {
    netio_conn side[2];
    uint64_t bytes[2]; // received from each
    unsigned number;
    int open; // sides that have not ended yet
};

static netio_loop *loop;
static const char *target;
static bool by_hand, logging;
static unsigned link_count;

static int side_of(netio_conn c)
{
    struct link *l = netio_conn_user(c);
    return netio_conn_same(c, l->side[CLIENT]) ? CLIENT : SERVER;
}

static netio_conn other(netio_conn c)
{
    struct link *l = netio_conn_user(c);
    return l->side[!side_of(c)];
}

static void show(netio_conn c, const char *data, size_t len)
{
    char text[101];
    size_t n = 0;
    for (; n < len && n < sizeof text - 1; n++) {
        text[n] =
            data[n] >= ' ' && data[n] <= '~' ? data[n] : '.'; // nothing that steers a terminal
    }
    text[n] = 0;
    printf("%.3f #%u %s %u bytes: %s\n", (double)netio_now_ms() / 1000,
           ((struct link *)netio_conn_user(c))->number, side_of(c) == CLIENT ? "->" : "<-",
           (unsigned)len, text);
    fflush(stdout);
}

//------------------------------------------------------------------------------------------------
// By hand
//------------------------------------------------------------------------------------------------

static void on_data(netio_conn c, const void *data, size_t len)
{
    if (logging) show(c, data, len);
    if (netio_conn_write(other(c), data, len) < 0) netio_conn_abort(c);
    else if (netio_conn_congested(other(c))) netio_conn_pause(c);
}

static void on_drain(netio_conn c) { netio_conn_resume(other(c)); }

static void on_eof(netio_conn c) { netio_conn_shutdown(other(c)); }

//------------------------------------------------------------------------------------------------
// Either way
//------------------------------------------------------------------------------------------------

static void on_target(netio_conn c)
{
    if (by_hand) return; // what the client sent meanwhile is queued already
    if (netio_conn_relay(c, other(c)) < 0) netio_conn_abort(c); // also ends the pause
}

static void on_stop(netio_conn c) { (void)c; } // a link that is under way may finish

static void on_close(netio_conn c, int err)
{
    struct link *l = netio_conn_user(c);
    netio_error why;
    netio_stats s;
    if (netio_conn_stats(c, &s) == 0) l->bytes[side_of(c)] = s.bytes_in;
    if (err < 0 &&
        err != NETIO_ECONNABORTED) { // that would be our own doing, for the other's error
        printf("#%u %s: %s\n", l->number, side_of(c) == CLIENT ? "client" : "target",
               netio_conn_error(c, &why) == 0 ? why.text : netio_strerror(err));
    }
    if (err < 0) netio_conn_abort(other(c)); // also ends a dial that is under way
    if (--l->open > 0) return;
    printf("#%u ended: %.0f bytes to the target, %.0f back\n", l->number, (double)l->bytes[CLIENT],
           (double)l->bytes[SERVER]);
    fflush(stdout);
    free(l);
}

static void on_client(netio_conn c)
{
    static const netio_handler half = {.on_open = on_target,
                                       .on_data = on_data,
                                       .on_drain = on_drain,
                                       .on_eof = on_eof,
                                       .on_stop = on_stop,
                                       .on_close = on_close};
    netio_dial_opts opts = {.timeout_ms = 5000};
    struct link *l = calloc(1, sizeof *l);
    opts.conn.user = l;
    opts.conn.read_always = true;
    if (!l || netio_conn_dial(&l->side[SERVER], loop, target, &half, &opts) < 0) {
        free(l);
        netio_conn_abort(c);
        return;
    }
    l->side[CLIENT] = c;
    l->open = 2;
    l->number = ++link_count;
    netio_conn_set_user(c, l);
    netio_conn_set_handler(c, &half);
    if (!by_hand) netio_conn_pause(c); // until there is somebody to relay to
}

static void on_signal(void *user)
{
    (void)user;
    netio_loop_finish(loop, 5000); // a second signal stops at once
}

int main(int argc, char **argv)
{
    static const netio_handler accepted = {.on_open = on_client};
    netio_listener_opts opts = {0};
    char address[NETIO_ADDR_TEXT];
    netio_listener listener;
    netio_addr local;
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--log") == 0) logging = by_hand = true;
        if (strcmp(argv[at], "--by-hand") == 0) by_hand = true;
    }
    if (argc - at != 2) {
        fprintf(stderr, "usage: tcp_proxy [--by-hand] [--log] ADDRESS TARGET\n");
        return 2;
    }
    target = argv[at + 1];
    opts.conn.read_always = true; // what one side owes must not stop what it says

    int err = netio_loop_create(&loop, NULL);
    if (err == 0) err = netio_listener_open(&listener, loop, argv[at], &accepted, &opts);
    if (err == 0) err = netio_listener_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, address, sizeof address);
    if (err >= 0) err = netio_signal_start(NULL, loop, SIGINT, on_signal, NULL);
    if (err >= 0) err = netio_signal_start(NULL, loop, SIGTERM, on_signal, NULL);
    if (err >= 0) {
        printf("listening on %s\n", address);
        fflush(stdout);
        err = netio_loop_run(loop);
    }
    if (err < 0) fprintf(stderr, "tcp_proxy: %s: %s\n", argv[at], netio_strerror(err));
    netio_loop_destroy(loop);
    return err < 0;
}
