// A TCP echo server for thousands of clients in one thread, on a poller: no callbacks, no loop but
// your own. What the loop does for tcp_echo_server.c stands here by hand.
//
// A client that does not take its echo is not read from until it did, so nobody makes the server
// hoard bytes. Without descriptors left, accepting pauses instead of spinning. A signal ends the
// wait through netio_poller_wake, so that the server stops in good order.
//
// Build  cc poller_echo_server.c -o poller_echo_server    (Windows: add -lws2_32)
// Try    ./poller_echo_server 127.0.0.1:7777              (in another terminal: nc 127.0.0.1 7777)
//        ./poller_echo_server --port 0 --backend poll
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct client {
    netio_socket s;
    size_t off, len; // the echo that waits: buf[off] to buf[len]
    char buf[16384];
};

static netio_poller *poller;
static netio_socket listener = NETIO_INVALID_SOCKET;
static int64_t resume; // when to accept again, if that pauses; else never
static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
    netio_poller_wake(poller);
}

static int accept_client(void)
{
    netio_socket s;
    int err = netio_accept(&s, listener, NULL, 0);
    if (err == NETIO_EMFILE || err == NETIO_ENOMEM || err == NETIO_ENOBUFS) {
        resume = netio_deadline(100);
        return netio_poller_modify(poller, listener, 0, NULL);
    }
    if (err < 0) return err == NETIO_EAGAIN ? 0 : err; // EAGAIN: it left meanwhile

    struct client *c = malloc(sizeof *c);
    if (!c || netio_poller_add(poller, s, NETIO_EV_READ, c) < 0) {
        netio_abort(&s); // refuses this one; the others stay
        free(c);
        return 0;
    }
    c->s = s;
    c->off = c->len = 0;
    return 0;
}

// One receive and one send a turn, so that a busy client does not starve the others.
// Returns 0, or why the client is done; NETIO_EOF is the usual end.
static int serve(struct client *c)
{
    if (c->off == c->len) {
        ptrdiff_t got = netio_recv(c->s, c->buf, sizeof c->buf, 0);
        if (got < 0) return got == NETIO_EAGAIN ? 0 : (int)got;
        c->off = 0;
        c->len = (size_t)got;
    }
    ptrdiff_t sent = netio_send(c->s, c->buf + c->off, c->len - c->off, 0);
    if (sent < 0 && sent != NETIO_EAGAIN) return (int)sent;
    if (sent > 0) c->off += (size_t)sent;
    // Mostly there is no change, and then this is no system call.
    unsigned events = c->off < c->len ? NETIO_EV_WRITE : NETIO_EV_READ;
    return netio_poller_modify(poller, c->s, events, c);
}

static int run(void)
{
    resume = netio_deadline(-1);
    while (!stopping) {
        netio_event events[256];
        ptrdiff_t n = netio_poller_wait(poller, events, 256, netio_deadline_left(resume));
        if (n < 0) return (int)n;
        for (ptrdiff_t i = 0; i < n; i++) {
            struct client *c = events[i].user;
            int err = c ? serve(c) : accept_client();
            if (err < 0 && !c) return err;
            if (err < 0) {
                netio_poller_drop(poller, &c->s);
                free(c);
            }
        }
        if (netio_deadline_left(resume) == 0) {
            int err = netio_poller_modify(poller, listener, NETIO_EV_READ, NULL);
            if (err < 0) return err;
            resume = netio_deadline(-1);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    char address[NETIO_ADDR_TEXT] = ":7777";
    int backend = NETIO_BACKEND_AUTO;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--backend") == 0 && i + 1 < argc) {
            for (i++; backend <= NETIO_BACKEND_IOURING; backend++)
                if (strcmp(argv[i], netio_backend_name(backend)) == 0) break;
        } else if (strcmp(argv[i], "--port") == 0 && i + 1 < argc) {
            snprintf(address, sizeof address, ":%s", argv[++i]);
        } else {
            snprintf(address, sizeof address, "%s", argv[i]);
        }
    }

    netio_addr local; // with port 0 the system chooses: say which
    int err = netio_poller_open(&poller, backend);
    if (err == 0) err = netio_listen(&listener, address, NULL);
    if (err == 0) err = netio_poller_add(poller, listener, NETIO_EV_READ, NULL);
    if (err == 0) err = netio_local_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, address, sizeof address);
    if (err >= 0) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        printf("listening on %s\n", address);
        fflush(stdout);
        err = run();
    }
    if (err < 0) fprintf(stderr, "poller_echo_server: %s: %s\n", address, netio_strerror(err));
    netio_close(&listener);
    return err < 0; // the end of the program closes the clients
}
