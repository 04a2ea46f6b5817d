// A TCP echo server for thousands of clients in one thread, on the loop: one function serves them.
//
// What it writes is sent or queued. A client that does not take its echo is not read from while its
// queue is long, and is reset after 30 s without progress, so nobody makes the server hoard bytes.
// Without descriptors left, accepting pauses instead of spinning. The first signal lets clients
// have what is queued for them, for at most a second; the next one ends the program at once.
//
// Build  cc tcp_echo_server.c -o tcp_echo_server    (Windows: add -lws2_32)
// Try    ./tcp_echo_server 127.0.0.1:7777           (in another terminal: nc 127.0.0.1 7777)
//        ./tcp_echo_server --port 0 --backend poll --max 100 --idle 60 --report 5
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static netio_loop *loop;

static void on_data(netio_conn c, const void *data, size_t len) { netio_conn_write(c, data, len); }

// Without on_eof a connection is closed when the peer ends, and gets all of its echo before.
static const netio_handler echo = {.on_data = on_data};

static void on_signal(void *user)
{
    (void)user;
    netio_loop_finish(loop, 1000);
}

// Each report tells what came and went since the last one, and the totals.
static void report(void *user)
{
    static uint64_t last_ms, last_in, last_out;
    uint64_t now_ms = netio_loop_now_ms(loop);
    netio_stats s;
    (void)user;
    netio_loop_stats(loop, &s);
    if (last_ms == 0) last_ms = s.opened_ms;
    double seconds = now_ms > last_ms ? (double)(now_ms - last_ms) / 1000 : 1;
    printf("up %.1f s, %u clients, in %.1f KB/s, out %.1f KB/s; %u accepted, %u refused, "
           "%u timed out, %u reset\n",
           (double)(now_ms - s.opened_ms) / 1000, (unsigned)s.active,
           (double)(s.bytes_in - last_in) / 1000 / seconds,
           (double)(s.bytes_out - last_out) / 1000 / seconds, (unsigned)s.accepted,
           (unsigned)s.refused, (unsigned)s.timeouts, (unsigned)s.resets);
    fflush(stdout);
    last_ms = now_ms;
    last_in = s.bytes_in;
    last_out = s.bytes_out;
}

static int backend_by_name(const char *name)
{
    int backend = NETIO_BACKEND_AUTO;
    while (backend <= NETIO_BACKEND_IOURING && strcmp(name, netio_backend_name(backend)) != 0) {
        backend++;
    }
    return backend; // past the last one: netio_loop_create says what it thinks of it
}

int main(int argc, char **argv)
{
    char address[NETIO_ADDR_TEXT] = ":7777";
    netio_loop_opts loop_opts = {0};
    netio_listener_opts opts = {.refusal = "server full\r\n"};
    int report_s = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc && argv[i][0] == '-' ? argv[i + 1] : "";
        if (strcmp(argv[i], "--backend") == 0) loop_opts.backend = backend_by_name(value);
        else if (strcmp(argv[i], "--port") == 0) snprintf(address, sizeof address, ":%s", value);
        else if (strcmp(argv[i], "--max") == 0) opts.conn_max = (size_t)atoi(value);
        else if (strcmp(argv[i], "--idle") == 0) opts.conn.idle_timeout_ms = 1000 * atoi(value);
        else if (strcmp(argv[i], "--report") == 0) report_s = atoi(value);
        else snprintf(address, sizeof address, "%s", argv[i]);
        if (value[0]) i++;
    }

    netio_listener listener;
    netio_addr local; // with port 0 the system chooses: say which
    int err = netio_loop_create(&loop, &loop_opts);
    if (err == 0) err = netio_listener_open(&listener, loop, address, &echo, &opts);
    if (err == 0) err = netio_listener_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, address, sizeof address);
    if (err >= 0) err = netio_signal_start(NULL, loop, SIGINT, on_signal, NULL);
    if (err >= 0) err = netio_signal_start(NULL, loop, SIGTERM, on_signal, NULL);
    if (err >= 0 && report_s > 0) {
        err = netio_timer_every(NULL, loop, 1000 * report_s, report, NULL);
    }
    if (err >= 0) {
        printf("listening on %s\n", address);
        fflush(stdout);
        err = netio_loop_run(loop);
    }
    if (err < 0) fprintf(stderr, "tcp_echo_server: %s: %s\n", address, netio_strerror(err));
    netio_loop_destroy(loop);
    return err < 0;
}
