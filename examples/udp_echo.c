// A UDP echo server, and a client that asks again when no answer comes.
//
// Datagrams get lost, also on good networks: the client sends its question up to four times, with
// growing pauses, and takes only an answer with its own bytes. The sender's address is not proved
// by anything, so the server answers with what came and not a byte more.
//
// Build  cc udp_echo.c -o udp_echo            (Windows: add -lws2_32)
// Try    ./udp_echo 127.0.0.1:7777            the server
//        ./udp_echo --ask 127.0.0.1:7777 hello     in another terminal, or: nc -u 127.0.0.1 7777
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static netio_poller *poller;
static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
    netio_poller_wake(poller);
}

static int fail(const char *what, ptrdiff_t err)
{
    fprintf(stderr, "udp_echo: %s: %s\n", what, netio_strerror(err));
    return 1;
}

static int serve(const char *address)
{
    static char buf[65536]; // no datagram is longer
    char text[NETIO_ADDR_TEXT];
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_addr from;
    netio_event event;

    ptrdiff_t n = netio_poller_open(&poller, NETIO_BACKEND_AUTO);
    if (n == 0) n = netio_bind(&s, address, NULL);
    if (n == 0) n = netio_poller_add(poller, s, NETIO_EV_READ, NULL);
    if (n == 0) n = netio_local_addr(s, &from);
    if (n == 0) n = netio_addr_format(&from, text, sizeof text);
    if (n < 0) return fail(address, n);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    printf("listening on %s\n", text);
    fflush(stdout);

    while (!stopping && n >= 0) {
        n = netio_poller_wait(poller, &event, 1, -1);
        // Not one at a time, as the poller costs more than a datagram; yet signals must be heard.
        for (int i = 0; i < 64 && n > 0; i++) {
            ptrdiff_t len = netio_recvfrom(s, buf, sizeof buf, &from, 0);
            if (len < 0) break;
            netio_sendto(s, buf, (size_t)len, &from, 0); // if it fails, one more that got lost
        }
    }
    netio_close(&s);
    netio_poller_close(poller);
    return n < 0 ? fail("poller", n) : 0;
}

static bool is_answer(void *user, netio_buf got)
{
    const netio_buf *asked = user;
    return got.len == asked->len && memcmp(got.data, asked->data, got.len) == 0;
}

static int ask(const char *address, const char *text)
{
    char buf[2048];
    netio_buf question = {text, strlen(text)};
    netio_room room = {buf, sizeof buf};
    netio_socket s;
    netio_addr to;

    ptrdiff_t n = netio_resolve(address, &to, 1, NULL, 5000);
    if (n < 0) return fail(address, n);
    netio_socket_opts opts = {.family = netio_addr_family(&to)};
    n = netio_bind(&s, NULL, &opts);
    if (n < 0) return fail("socket", n);

    uint64_t start = netio_now_us();
    n = netio_query(s, &to, question, room, is_answer, &question, 4, 250);
    if (n >= 0) {
        printf("%.*s\n", (int)n, buf);
        fprintf(stderr, "answered after %d microseconds\n", (int)(netio_now_us() - start));
    }
    netio_close(&s);
    return n < 0 ? fail(address, n) : 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--ask") == 0) return ask(argv[2], argv[3]);
    if (argc <= 2) return serve(argc == 2 ? argv[1] : ":7777");
    fprintf(stderr, "usage: udp_echo [ADDRESS]\n       udp_echo --ask HOST:PORT TEXT\n");
    return 2;
}
