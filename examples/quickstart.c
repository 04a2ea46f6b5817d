// A server and its clients in one program, on one thread: the loop calls your functions when there
// is something to do, and none of them waits.
//
// The server says everything back. It has limits: so many clients, so much silence. The clients
// dial it, send forty messages each and check the echo, and then both limits are tried.
//
// Build  cc quickstart.c -o quickstart     (Windows: gcc quickstart.c -o quickstart.exe -lws2_32)
// Try    ./quickstart                      or at another address: ./quickstart [::1]:0
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <stdio.h>
#include <string.h>

enum { CLIENTS = 25, MESSAGES = 40, SILENCE_MS = 1000 };

static netio_loop *loop;
static netio_listener listener;
static char address[NETIO_ADDR_TEXT] = "127.0.0.1:0"; // any free port

// --- the server ---------------------------------------------------------------------------------

// Bytes come in pieces of any size. What is written is sent or queued, all of it, and never waits.
static void server_data(netio_conn c, const void *data, size_t len)
{
    netio_conn_write(c, data, len);
}

static void server_timeout(netio_conn c, int which) // without this function: reset
{
    (void)which;
    netio_conn_write(c, "bye\n", 4);
    netio_conn_close(c); // sends what is queued first
}

static const netio_handler server = {.on_data = server_data, .on_timeout = server_timeout};

// --- the clients --------------------------------------------------------------------------------

static int said[CLIENTS], echoes, finished, closed, failed;
static uint64_t start_us;

static void dial(const netio_handler *handler, int *user)
{
    netio_dial_opts opts = {.timeout_ms = 5000, .conn.user = user};
    if (netio_conn_dial(NULL, loop, address, handler, &opts) < 0) failed++;
}

static void refused_data(netio_conn c, const void *data, size_t len)
{
    (void)c;
    printf("One client too many was told \"%.*s\".\n", (int)len, (const char *)data);
}

static void client_close(netio_conn c, int err)
{
    if (err < 0 || *(int *)netio_conn_user(c) < MESSAGES) failed++;
    if (++closed < CLIENTS) return;
    printf("After %d ms of silence the server hung up on all of them.\n", SILENCE_MS);
    netio_listener_close(listener); // now nothing is left that could happen, and the loop ends
}

static void say(netio_conn c)
{
    char line[32];
    int len = snprintf(line, sizeof line, "message %d\n", ++*(int *)netio_conn_user(c));
    netio_conn_write(c, line, (size_t)len);
}

static void client_data(netio_conn c, const void *data, size_t len)
{
    static const netio_handler refused = {.on_data = refused_data};
    static const netio_handler silent = {.on_close = client_close};
    int n = *(int *)netio_conn_user(c);
    char want[32];
    size_t want_len = (size_t)snprintf(want, sizeof want, "message %d\n", n);
    if (len < want_len) {
        netio_conn_unread(c, len); // half an echo: it comes again, with what follows
        return;
    }
    if (len == want_len && memcmp(data, want, len) == 0) echoes++;
    if (n < MESSAGES) say(c);
    else netio_conn_set_handler(c, &silent); // it stays open, and says nothing more
    if (n < MESSAGES || ++finished < CLIENTS) return;
    double ms = (double)(netio_now_us() - start_us) / 1000;
    printf("%d clients sent %d messages each: %d right echoes in %.0f ms, %.0f a second.\n",
           CLIENTS, MESSAGES, echoes, ms, echoes / ms * 1000);
    dial(&refused, NULL);
}

int main(int argc, char **argv)
{
    static const netio_handler client = {say, .on_data = client_data, .on_close = client_close};
    netio_listener_opts opts = {.conn_max = CLIENTS, .refusal = "full, come back later"};
    opts.conn.idle_timeout_ms = SILENCE_MS;
    netio_addr local = {0};

    if (argc > 1) snprintf(address, sizeof address, "%s", argv[1]);
    int err = netio_loop_create(&loop, NULL);
    if (err == 0) err = netio_listener_open(&listener, loop, address, &server, &opts);
    if (err == 0) err = netio_listener_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, address, sizeof address);
    if (err >= 0) {
        printf("netio " NETIO_VERSION ": a server on %s, and its clients\n\n", address);
        start_us = netio_now_us();
        for (int i = 0; i < CLIENTS; i++) dial(&client, &said[i]);
        err = netio_loop_run(loop);
    }
    netio_loop_destroy(loop);
    if (netio_addr_family(&local) == NETIO_UNIX) netio_unix_unlink(&local);
    if (err < 0 || failed || echoes != CLIENTS * MESSAGES) {
        fprintf(stderr, "quickstart: %s: %s, %d failed\n", address, netio_strerror(err), failed);
        return 1;
    }
    printf("\nNow in two terminals:\n"
           "    cc examples/tcp_echo_server.c -o echo && ./echo :7777\n"
           "    nc 127.0.0.1 7777       (or: cc examples/nc.c -o nc && ./nc 127.0.0.1 7777)\n");
    return 0;
}
