// netio_udp.c: UDP echo on netio_poller with netio_recv_batch and netio_send_batch, written as a
// user of netio would write it. What udp.c does by hand with --epoll --mmsg is the same, call for
// call: one wait, one batch in, one batch out, so that what the two differ in is what netio costs.
//
//     cc -O2 -I. bench/servers/netio_udp.c -o netio_udp
//     ./netio_udp PORT udp [--backend NAME]
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 64, ROOM = 2048 };

static int backend_named(const char *name)
{
    for (int b = NETIO_BACKEND_SELECT; b <= NETIO_BACKEND_KQUEUE; b++) {
        if (strcmp(netio_backend_name(b), name) == 0) return b;
    }
    return -1;
}

static int fail(const char *what, ptrdiff_t err)
{
    fprintf(stderr, "netio_udp: %s: %s\n", what, netio_strerror(err));
    return 1;
}

int main(int argc, char **argv)
{
    static netio_datagram msgs[BATCH];
    static char bufs[BATCH][ROOM];
    netio_poller *poller;
    netio_socket s;
    netio_event event;
    char address[64];
    int backend = backend_named("epoll"), err;

    if (argc < 3 || strcmp(argv[2], "udp") != 0) {
        return fail("usage: PORT udp [--backend NAME]", NETIO_EINVAL);
    }
    if (argc == 5 && strcmp(argv[3], "--backend") == 0) backend = backend_named(argv[4]);

    snprintf(address, sizeof address, "127.0.0.1:%s", argv[1]);
    err = netio_bind(&s, address, NULL);
    if (err < 0) return fail(address, err);
    err = netio_poller_open(&poller, backend);
    if (err < 0) return fail("poller", err);
    err = netio_poller_add(poller, s, NETIO_EV_READ, NULL);
    if (err < 0) return fail("socket", err);

    for (int i = 0; i < BATCH; i++) {
        msgs[i].data = bufs[i];
        msgs[i].cap = ROOM;
    }
    for (;;) {
        ptrdiff_t n = netio_poller_wait(poller, &event, 1, -1);
        if (n < 0) return fail("wait", n);
        n = netio_recv_batch(s, msgs, BATCH, 0);
        // What was received goes back as it is; what cannot be sent is one more that got lost.
        if (n > 0) netio_send_batch(s, msgs, (size_t)n, 0);
    }
}
