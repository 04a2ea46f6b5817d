// An echo server on four threads, one loop each. Loops share nothing, so nothing is locked.
//
// Where the kernel spreads the clients of one port over several sockets (Linux, FreeBSD), each loop
// listens by itself. Elsewhere, or with --hand-over, one loop accepts and hands each client to the
// next one. A signal comes to one loop, which tells the others by netio_loop_post: other threads
// may call that, netio_loop_stop and netio_loop_stats, and nothing else.
//
// Build  cc workers.c -o workers -pthread      (Windows: gcc workers.c -o workers.exe -lws2_32)
// Try    ./workers 127.0.0.1:7777              and: nc 127.0.0.1 7777; Ctrl-C ends it
//        ./workers --hand-over
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { LOOPS = 4 };

static netio_loop *loops[LOOPS];

static void run(void *loop)
{
    int err = netio_loop_run(loop);
    if (err < 0) fprintf(stderr, "workers: %s\n", netio_strerror(err));
}

#if defined(_WIN32)
#include <windows.h>
typedef HANDLE thread;

static DWORD WINAPI thread_body(void *loop)
{
    run(loop);
    return 0;
}

static bool thread_start(thread *t, void *loop)
{
    *t = CreateThread(NULL, 0, thread_body, loop, 0, NULL);
    return *t != NULL;
}

static void thread_join(thread t) { WaitForSingleObject(t, INFINITE); }
#else
#include <pthread.h>
typedef pthread_t thread;

static void *thread_body(void *loop)
{
    run(loop);
    return NULL;
}

static bool thread_start(thread *t, void *loop)
{
    return pthread_create(t, NULL, thread_body, loop) == 0;
}

static void thread_join(thread t) { pthread_join(t, NULL); }
#endif

static void finish(void *loop) { netio_loop_finish(loop, 1000); } // a second time: stops at once

static void on_signal(void *user)
{
    (void)user;
    for (int i = 0; i < LOOPS; i++) netio_loop_post(loops[i], finish, NULL, loops[i], 0);
}

static void on_data(netio_conn c, const void *data, size_t len) { netio_conn_write(c, data, len); }

// The first listener finds a port if `address` has none, and the others get the same one.
static int listen_at(char address[NETIO_ADDR_TEXT], bool hand_over)
{
    static const netio_handler echo = {.on_data = on_data};
    netio_listener_opts opts = {.socket.balance = !hand_over};
    netio_listener l;
    netio_addr local;
    int err = 0;
    if (hand_over) opts.workers = loops;
    if (hand_over) opts.worker_count = LOOPS;
    for (int i = 0; i < (hand_over ? 1 : LOOPS) && err >= 0; i++) {
        err = netio_listener_open(&l, loops[i], address, &echo, &opts);
        if (err == 0) err = netio_listener_addr(l, &local);
        if (err == 0) err = netio_addr_format(&local, address, NETIO_ADDR_TEXT);
    }
    return err;
}

int main(int argc, char **argv)
{
    char address[NETIO_ADDR_TEXT] = ":7777";
    thread threads[LOOPS];
    bool hand_over = argc > 1 && strcmp(argv[1], "--hand-over") == 0;
    int err = 0;
    if (argc > 1 + hand_over) snprintf(address, sizeof address, "%s", argv[1 + hand_over]);

    for (int i = 0; i < LOOPS && err == 0; i++) err = netio_loop_create(&loops[i], NULL);
    if (err == 0) err = listen_at(address, hand_over);
    if (err == NETIO_ENOTSUP) err = listen_at(address, hand_over = true);
    if (err >= 0) err = netio_signal_start(NULL, loops[0], SIGINT, on_signal, NULL);
    if (err >= 0) err = netio_signal_start(NULL, loops[0], SIGTERM, on_signal, NULL);
    if (err < 0) {
        fprintf(stderr, "workers: %s: %s\n", address, netio_strerror(err));
        return 1;
    }
    printf("listening on %s (%s)\n", address,
           hand_over ? "one accepts for all" : "each for itself");
    fflush(stdout);
    for (int i = 0; i < LOOPS; i++)
        if (!thread_start(&threads[i], loops[i])) return 1;
    for (int i = 0; i < LOOPS; i++) thread_join(threads[i]);

    for (int i = 0; i < LOOPS; i++) {
        netio_stats s;
        netio_loop_stats(loops[i], &s);
        printf("loop %d: %u connections, %.0f bytes in, %.0f bytes out\n", i, (unsigned)s.opened,
               (double)s.bytes_in, (double)s.bytes_out);
    }
    for (int i = LOOPS; i-- > 0;) netio_loop_destroy(loops[i]); // the accepting one last
    return 0;
}
