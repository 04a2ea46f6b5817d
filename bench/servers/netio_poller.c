// netio_poller.c: the server of epoll.c once more, on netio_poller instead of epoll, written as a
// user of netio would write it. What it does is the same, call for call: level-triggered, one read
// a wakeup into one shared buffer, the answer sent at once; only when it does not fit is the rest
// kept and WRITE the interest, without READ, so that the peer's window fills instead of our heap.
// What the two differ in is therefore what netio costs.
//
//     cc -O2 -I. bench/servers/netio_poller.c -o netio_poller
//     ./netio_poller PORT echo|sink|source [--backend NAME] [--rbuf BYTES]
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 512, ACCEPTS = 64, POURS = 8, POUR = 256 * 1024 };

typedef struct conn {
    netio_socket s;
    char *owed; // what the peer has not taken yet
    size_t len, off;
} conn;

static netio_poller *poller;
static netio_socket listener;
static bool sinking, pouring; // neither: echo
static char *buf;
static size_t buf_cap = 256 * 1024; // a smaller one leaves part of a large burst behind
static const char zeros[POUR];

static void drop(conn *c)
{
    netio_poller_drop(poller, &c->s);
    free(c->owed);
    free(c);
}

static int send_owed(conn *c)
{
    while (c->len > 0) {
        ptrdiff_t n = netio_send(c->s, c->owed + c->off, c->len, 0);
        if (n < 0) return n == NETIO_EAGAIN ? 0 : (int)n;
        c->off += (size_t)n;
        c->len -= (size_t)n;
    }
    free(c->owed);
    c->owed = NULL;
    c->off = 0;
    return netio_poller_modify(poller, c->s, NETIO_EV_READ, c);
}

static int send_or_keep(conn *c, const char *data, size_t len)
{
    ptrdiff_t n = netio_send(c->s, data, len, 0);
    if (n == (ptrdiff_t)len) return 0;
    if (n < 0 && n != NETIO_EAGAIN) return (int)n;
    if (n < 0) n = 0;

    // Nothing is owed yet: while it is, the interest is WRITE alone and no more comes in.
    c->len = len - (size_t)n;
    c->owed = (char *)malloc(c->len);
    if (!c->owed) return NETIO_ENOMEM;
    memcpy(c->owed, data + n, c->len);
    return netio_poller_modify(poller, c->s, NETIO_EV_WRITE, c);
}

static int receive(conn *c)
{
    ptrdiff_t n = netio_recv(c->s, buf, buf_cap, 0);
    if (n < 0) return n == NETIO_EAGAIN ? 0 : (int)n;
    return sinking || pouring ? 0 : send_or_keep(c, buf, (size_t)n);
}

static int pour(conn *c)
{
    for (int i = 0; i < POURS; i++) {
        ptrdiff_t n = netio_send(c->s, zeros, sizeof zeros, 0);
        if (n < 0) return n == NETIO_EAGAIN ? 0 : (int)n;
        if (n < (ptrdiff_t)sizeof zeros) return 0;
    }
    return 0;
}

static void accept_all(void)
{
    netio_socket s;
    for (int i = 0; i < ACCEPTS && netio_accept(&s, listener, NULL, 0) == 0; i++) {
        conn *c = (conn *)calloc(1, sizeof *c);
        unsigned events = pouring ? NETIO_EV_READ | NETIO_EV_WRITE : NETIO_EV_READ;
        if (!c || netio_poller_add(poller, s, events, c) < 0) {
            free(c);
            netio_close(&s);
            continue;
        }
        c->s = s;
    }
}

static void on_event(const netio_event *e)
{
    conn *c = (conn *)e->user;
    int err = 0;
    if (!c) {
        accept_all();
        return;
    }
    if (e->events & NETIO_EV_WRITE) err = pouring ? pour(c) : send_owed(c);
    if (err == 0 && (e->events & NETIO_EV_READ)) err = receive(c);
    if (err < 0) drop(c);
}

static int backend_named(const char *name)
{
    for (int b = NETIO_BACKEND_SELECT; b <= NETIO_BACKEND_KQUEUE; b++) {
        if (strcmp(netio_backend_name(b), name) == 0) return b;
    }
    return -1;
}

static int fail(const char *what, int err)
{
    fprintf(stderr, "netio_poller: %s: %s\n", what, netio_strerror(err));
    return 1;
}

int main(int argc, char **argv)
{
    // Set on the listener, because Linux hands it down: one call less for every connection.
    netio_setting nodelay = {NETIO_OPT_NODELAY, 1, NULL};
    netio_socket_opts opts = {0};
    int backend = backend_named("epoll"), err;
    char address[64];
    opts.backlog = 4096;
    opts.settings = &nodelay;
    opts.setting_count = 1;

    if (argc < 3) return fail("usage: PORT echo|sink|source [--backend NAME]", NETIO_EINVAL);
    sinking = strcmp(argv[2], "sink") == 0;
    pouring = strcmp(argv[2], "source") == 0;
    if (!sinking && !pouring && strcmp(argv[2], "echo") != 0) return fail(argv[2], NETIO_EINVAL);
    for (int i = 3; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--backend") == 0) backend = backend_named(argv[i + 1]);
        if (strcmp(argv[i], "--rbuf") == 0) buf_cap = (size_t)strtoul(argv[i + 1], NULL, 10);
    }
    buf = (char *)malloc(buf_cap);
    if (!buf) return fail("buffer", NETIO_ENOMEM);

    snprintf(address, sizeof address, "127.0.0.1:%s", argv[1]);
    err = netio_listen(&listener, address, &opts);
    if (err < 0) return fail(address, err);
    err = netio_poller_open(&poller, backend);
    if (err < 0) return fail("poller", err);
    err = netio_poller_add(poller, listener, NETIO_EV_READ, NULL);
    if (err < 0) return fail("listener", err);

    for (;;) {
        static netio_event events[BATCH];
        ptrdiff_t n = netio_poller_wait(poller, events, BATCH, -1);
        if (n < 0) return fail("wait", (int)n);
        for (ptrdiff_t i = 0; i < n; i++) {
            on_event(&events[i]);
        }
    }
}
