// BACKENDS: all
//
// Sockets and descriptors that belong to the program, watched by a loop.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifndef _WIN32
#include <fcntl.h>
#include <unistd.h>
#endif

enum { READ = NETIO_EV_READ, WRITE = NETIO_EV_WRITE, BOTH = READ | WRITE, LONG_MS = 10000 };

static netio_loop *loop;

static void open_loop(void)
{
    netio_loop_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.backend = test_backend();
    CHECK_OK(netio_loop_create(&loop, &opts));
}

static void close_loop(void) { CHECK_OK(netio_loop_destroy(loop)); }

// A watched socket, what was reported of it, and what its callback shall do.
typedef struct spy {
    netio_socket s;
    netio_watch w;
    int calls;
    unsigned events; // of the last call
    unsigned all;
    bool take; // receive what is there
    void (*then)(struct spy *p);
    struct spy *other;
} spy;

static void ready(void *user, unsigned events)
{
    spy *p = (spy *)user;
    char buf[64];
    p->calls++;
    p->events = events & BOTH;
    p->all |= events;
    while (p->take && netio_recv(p->s, buf, sizeof buf, 0) > 0) {}
    if (p->then) p->then(p);
}

static void watch(spy *p, netio_socket s, unsigned events)
{
    memset(p, 0, sizeof *p);
    p->s = s;
    CHECK_OK(netio_watch_start(&p->w, loop, s, events, ready, p));
}

static int turn(void)
{
    int n = netio_loop_run_once(loop, LONG_MS);
    CHECK(n >= 0);
    return n;
}

// Nothing more is reported; the loop sleeps, but for a turn or two that tidy up.
static void quiet(int ms)
{
    uint64_t start = netio_now_us();
    for (int turns = 0; netio_now_us() - start < (uint64_t)ms * 1000; turns++) {
        CHECK_EQ(0, netio_loop_run_once(loop, ms));
        CHECK(turns < 3);
    }
    CHECK_BETWEEN(ms * 1000, ms * 1000 + 3000000, netio_now_us() - start);
}

static void close_both(netio_socket *a, netio_socket *b)
{
    CHECK_OK(netio_close(a));
    CHECK_OK(netio_close(b));
}

static void send_x(netio_socket s) { CHECK_ERR(1, netio_send(s, "x", 1, 1000)); }

//================================================================================================
// What is reported
//================================================================================================

TEST(watch, readable_is_reported_until_it_is_read)
{
    netio_socket a, b;
    spy p;
    open_loop();
    test_tcp_pair(&a, &b);
    watch(&p, b, READ);
    quiet(30);
    send_x(a);
    for (int i = 1; i <= 3; i++) {
        CHECK_EQ(1, turn());
        CHECK_EQ(i, p.calls);
        CHECK_EQ(READ, p.events);
    }
    p.take = true;
    CHECK_EQ(1, turn());
    quiet(30);
    CHECK_EQ(4, p.calls);
    netio_watch_stop(p.w);
    close_loop();
    close_both(&a, &b);
}

TEST(watch, writable_is_reported_while_there_is_room)
{
    static char junk[65536];
    netio_socket a, b;
    spy p;
    open_loop();
    test_tcp_pair(&a, &b);
    watch(&p, a, WRITE);
    for (int i = 1; i <= 3; i++) {
        CHECK_EQ(1, turn());
        CHECK_EQ(i, p.calls);
        CHECK_EQ(WRITE, p.events);
    }
    do {
        while (netio_send(a, junk, sizeof junk, 0) > 0) {}
    } while (netio_wait(a, WRITE, 60) != NETIO_ETIMEDOUT);
    p.calls = 0;
    quiet(30);
    while (netio_recv(b, junk, sizeof junk, 100) > 0) {}
    CHECK_EQ(1, turn());
    CHECK_EQ(1, p.calls);
    netio_watch_stop(p.w);
    close_loop();
    close_both(&a, &b);
}

TEST(watch, both_come_in_one_call)
{
    netio_socket a, b;
    spy p;
    open_loop();
    test_tcp_pair(&a, &b);
    send_x(a);
    CHECK_ERR(READ, netio_wait(b, READ, LONG_MS));
    watch(&p, b, BOTH);
    CHECK_EQ(1, turn());
    CHECK_EQ(1, p.calls);
    CHECK_EQ(BOTH, p.events);
    CHECK_EQ(0, p.all & ~(unsigned)(BOTH | NETIO_EV_HINT_EOF | NETIO_EV_HINT_ERROR));
    netio_watch_stop(p.w);
    close_loop();
    close_both(&a, &b);
}

TEST(watch, the_end_of_the_peer_is_readable)
{
    netio_socket a, b;
    spy p;
    char c;
    open_loop();
    test_tcp_pair(&a, &b);
    watch(&p, b, READ);
    send_x(a);
    CHECK_OK(netio_close(&a));
    CHECK_EQ(1, turn());
    CHECK_EQ(READ, p.events);
    CHECK_ERR(1, netio_recv(b, &c, 1, LONG_MS));
    CHECK_EQ(1, turn());
    CHECK_EQ(READ, p.events);
    CHECK_ERR(NETIO_EOF, netio_recv(b, &c, 1, 0));
    netio_watch_stop(p.w);
    close_loop();
    CHECK_OK(netio_close(&b));
}

TEST(watch, interest_can_be_changed)
{
    netio_socket a, b;
    spy p;
    open_loop();
    test_tcp_pair(&a, &b);
    send_x(a);
    CHECK_ERR(READ, netio_wait(b, READ, LONG_MS));
    watch(&p, b, 0);
    quiet(20);
    CHECK_OK(netio_watch_modify(p.w, READ));
    CHECK_EQ(1, turn());
    CHECK_EQ(READ, p.events);
    CHECK_OK(netio_watch_modify(p.w, WRITE));
    CHECK_EQ(1, turn());
    CHECK_EQ(WRITE, p.events);
    CHECK_OK(netio_watch_modify(p.w, BOTH));
    CHECK_EQ(1, turn());
    CHECK_EQ(BOTH, p.events);
    CHECK_OK(netio_watch_modify(p.w, 0));
    quiet(20);
    CHECK_EQ(3, p.calls);
    CHECK_ERR(NETIO_EINVAL, netio_watch_modify(p.w, 1u << 20));
    netio_watch_stop(p.w);
    close_loop();
    close_both(&a, &b);
}

#ifndef _WIN32
TEST(watch, a_pipe_is_as_good_as_a_socket)
{
    int fd[2];
    spy in, out;
    char c;
    open_loop();
    CHECK_EQ(0, pipe(fd));
    watch(&in, fd[0], READ);
    quiet(20);
    watch(&out, fd[1], WRITE);
    CHECK_EQ(1, turn());
    CHECK_EQ(1, out.calls);
    netio_watch_stop(out.w);
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(1, turn());
    CHECK_EQ(1, in.calls);
    CHECK_EQ(1, read(fd[0], &c, 1));
    quiet(20);
    CHECK_EQ(0, close(fd[1])); // the writer is gone: read and find out
    CHECK_EQ(1, turn());
    CHECK_EQ(0, read(fd[0], &c, 1));
    netio_watch_stop(in.w);
    CHECK_EQ(0, close(fd[0]));
    close_loop();
}
#else
TEST(watch, a_pipe_is_as_good_as_a_socket) { SKIP("Windows cannot wait for a pipe like that"); }
#endif

//================================================================================================
// Stop
//================================================================================================

static void stop_own(spy *p) { netio_watch_stop(p->w); }

static void stop_other(spy *p)
{
    netio_watch_stop(p->other->w);
    netio_watch_stop(p->w);
}

TEST(watch, a_callback_stops_itself)
{
    netio_socket a, b;
    spy p;
    open_loop();
    test_tcp_pair(&a, &b);
    send_x(a);
    watch(&p, b, BOTH);
    p.then = stop_own;
    CHECK_OK(netio_loop_run(loop)); // ends: nothing is left
    CHECK_EQ(1, p.calls);
    quiet(20);
    netio_watch_stop(p.w);
    CHECK_ERR(NETIO_ESTALE, netio_watch_modify(p.w, READ));
    watch(&p, b, READ); // and again
    CHECK_EQ(1, turn());
    netio_watch_stop(p.w);
    close_loop();
    close_both(&a, &b);
}

TEST(watch, a_callback_stops_another_of_the_same_batch)
{
    netio_socket a[2], b[2];
    spy p[2];
    open_loop();
    for (int i = 0; i < 2; i++) {
        test_tcp_pair(&a[i], &b[i]);
        send_x(a[i]);
        CHECK_ERR(READ, netio_wait(b[i], READ, LONG_MS));
        watch(&p[i], b[i], READ);
        p[i].then = stop_other;
    }
    p[0].other = &p[1];
    p[1].other = &p[0];
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(1, p[0].calls + p[1].calls); // whichever was first
    close_loop();
    for (int i = 0; i < 2; i++) close_both(&a[i], &b[i]);
}

// The callback of one closes the other's socket and gets its number again for a new one, of which
// nothing has been reported: what waits in the batch is not the new one's.
static spy successor;
static netio_socket replacement_peer;

static void replace_other(spy *p)
{
    netio_socket fresh;
    if (successor.calls >= 0) return; // done already
    p->other->then = NULL;
    netio_watch_stop(p->other->w);
    CHECK_OK(netio_close(&p->other->s));
    test_tcp_pair(&replacement_peer, &fresh);
    watch(&successor, fresh, READ);
    p->other->calls = -1000;
}

TEST(watch, a_number_that_is_used_again_gets_nothing_of_its_predecessor)
{
    netio_socket a[2], b[2];
    spy p[2];
    open_loop();
    memset(&successor, 0, sizeof successor);
    successor.calls = -1;
    for (int i = 0; i < 2; i++) {
        test_tcp_pair(&a[i], &b[i]);
        send_x(a[i]);
        CHECK_ERR(READ, netio_wait(b[i], READ, LONG_MS));
        watch(&p[i], b[i], READ);
        p[i].then = replace_other;
    }
    p[0].other = &p[1];
    p[1].other = &p[0];
    for (int i = 0; i < 3; i++) turn();
    CHECK_EQ(0, successor.calls);
    spy *gone = p[0].calls < 0 ? &p[0] : &p[1];
    CHECK_EQ(-1000, gone->calls);
    send_x(replacement_peer);
    while (successor.calls == 0) turn();
    CHECK_EQ(READ, successor.events);
    netio_watch_stop(successor.w);
    netio_watch_stop(p[0].w);
    netio_watch_stop(p[1].w);
    close_loop();
    for (int i = 0; i < 2; i++) {
        CHECK_OK(netio_close(&a[i]));
        if (&p[i] != gone) CHECK_OK(netio_close(&b[i]));
    }
    close_both(&replacement_peer, &successor.s);
}

TEST(watch, stop_then_close_then_the_same_number)
{
    netio_socket a, b;
    spy p;
    open_loop();
    for (int i = 0; i < 50; i++) {
        test_tcp_pair(&a, &b);
        watch(&p, b, i % 2 ? READ : BOTH);
        if (i % 3) send_x(a);
        if (i % 5) CHECK(netio_loop_run_once(loop, 0) >= 0);
        netio_watch_stop(p.w);
        close_both(&a, &b);
        p.calls = 0;
        if (i % 7 == 0) quiet(5);
        CHECK_EQ(0, p.calls);
    }
    close_loop();
}

//================================================================================================
// Errors and handles
//================================================================================================

TEST(watch, misuse_has_names)
{
    static const netio_watch nothing;
    netio_socket a, b;
    netio_watch w;
    spy p;
    open_loop();
    test_tcp_pair(&a, &b);
    memset(&w, 0, sizeof w);
    watch(&p, b, READ);
    CHECK_ERR(NETIO_EEXIST, netio_watch_start(&w, loop, b, READ, ready, &p));
    CHECK_ERR(NETIO_EINVAL, netio_watch_start(&w, loop, a, 1u << 20, ready, &p));
    CHECK_ERR(NETIO_EBADF, netio_watch_start(&w, loop, NETIO_INVALID_SOCKET, READ, ready, &p));
    CHECK(w.ptr == NULL);
    netio_watch_stop(nothing);
    CHECK_ERR(NETIO_ESTALE, netio_watch_modify(nothing, READ));
    send_x(a);
    CHECK_EQ(1, turn()); // the first one is as it was
    CHECK_EQ(1, p.calls);
    netio_watch_stop(p.w);
    close_loop();
    close_both(&a, &b);
}

TEST(watch, without_memory_nothing_is_watched)
{
    netio_socket a, b;
    netio_watch w;
    spy p;
    open_loop();
    test_tcp_pair(&a, &b);
    memset(&p, 0, sizeof p);
    p.s = b;
    for (long n = 1;; n++) {
        memset(&w, 0, sizeof w);
        test_alloc_fail_at(n);
        int err = netio_watch_start(&w, loop, b, READ, ready, &p);
        test_alloc_fail_at(0);
        if (err == 0) break;
        CHECK_ERR(NETIO_ENOMEM, err);
        CHECK(w.ptr == NULL && n < 50);
        quiet(1);
    }
    send_x(a);
    CHECK_EQ(1, turn());
    CHECK_EQ(1, p.calls);
    netio_watch_stop(w);
    close_loop();
    close_both(&a, &b);
}

TEST(watch, a_stale_handle_never_reaches_its_successor)
{
    netio_socket a[40], b[40];
    netio_watch old[40];
    spy p[40];
    open_loop();
    for (int i = 0; i < 40; i++) {
        test_tcp_pair(&a[i], &b[i]);
        watch(&p[i], b[i], READ);
        old[i] = p[i].w;
        netio_watch_stop(p[i].w);
    }
    quiet(1);
    for (int i = 0; i < 40; i++) {
        watch(&p[i], b[i], READ);
        send_x(a[i]);
    }
    for (int i = 0; i < 40; i++) {
        netio_watch_stop(old[i]);
        CHECK_ERR(NETIO_ESTALE, netio_watch_modify(old[i], 0));
    }
    int calls = 0;
    for (int i = 0; i < 40; i++) p[i].take = true;
    while (calls < 40) calls += turn();
    for (int i = 0; i < 40; i++) CHECK_EQ(1, p[i].calls);
    close_loop(); // with all of them still watched
    for (int i = 0; i < 40; i++) close_both(&a[i], &b[i]);
}

TEST(watch, sockets_stay_the_programs)
{
    netio_socket a, b;
    spy p;
    char c;
    open_loop();
    test_tcp_pair(&a, &b);
    watch(&p, b, BOTH);
    close_loop();
    send_x(a);
    CHECK_ERR(1, netio_recv(b, &c, 1, LONG_MS));
    open_loop(); // another loop may have it now
    watch(&p, b, WRITE);
    CHECK_EQ(1, turn());
    close_loop();
    close_both(&a, &b);
}

TEST(watch, a_loop_on_a_network_in_memory_has_no_descriptors)
{
    netio_loop_opts opts;
    netio_network *net;
    netio_socket a, b;
    netio_watch w;
    memset(&opts, 0, sizeof opts);
    CHECK_OK(netio_network_create(&net, NULL));
    opts.network = net;
    CHECK_OK(netio_loop_create(&loop, &opts));
    test_tcp_pair(&a, &b);
    CHECK_ERR(NETIO_ENOTSUP, netio_watch_start(&w, loop, b, READ, ready, NULL));
    CHECK(netio_loop_poll_fd(loop) == NETIO_INVALID_SOCKET);
    close_loop();
    CHECK_OK(netio_network_destroy(net));
    close_both(&a, &b);
}

// A whole conversation over watches: the program's own sockets, non-blocking, level-triggered.
typedef struct pump {
    spy end[2];
    netio_watch w[2];
    size_t sent, got;
    bool wrong;
} pump;

enum { TOTAL = 1 << 20 };
static unsigned char want[TOTAL];

static void pump_out(void *user, unsigned events)
{
    pump *p = (pump *)user;
    ptrdiff_t n = netio_send(p->end[0].s, want + p->sent, TOTAL - p->sent, 0);
    (void)events;
    if (n > 0) p->sent += (size_t)n;
    if (p->sent == TOTAL) {
        netio_watch_stop(p->w[0]);
        netio_shutdown(p->end[0].s, NETIO_SHUT_WRITE);
    }
}

static void pump_in(void *user, unsigned events)
{
    static unsigned char buf[30000];
    pump *p = (pump *)user;
    ptrdiff_t n = netio_recv(p->end[1].s, buf, sizeof buf, 0);
    (void)events;
    if (n == NETIO_EOF) netio_watch_stop(p->w[1]);
    if (n <= 0) return;
    if (p->got + (size_t)n > TOTAL || memcmp(buf, want + p->got, (size_t)n) != 0) p->wrong = true;
    p->got += (size_t)n;
}

TEST(watch, a_megabyte_through_watches)
{
    pump p;
    memset(&p, 0, sizeof p);
    test_fill(want, TOTAL, 17);
    open_loop();
    test_tcp_pair(&p.end[0].s, &p.end[1].s);
    CHECK_OK(netio_watch_start(&p.w[0], loop, p.end[0].s, WRITE, pump_out, &p));
    CHECK_OK(netio_watch_start(&p.w[1], loop, p.end[1].s, READ, pump_in, &p));
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(TOTAL, p.sent);
    CHECK_EQ(TOTAL, p.got);
    CHECK(!p.wrong);
    close_loop();
    close_both(&p.end[0].s, &p.end[1].s);
}

TEST_MAIN("watch", T(watch, readable_is_reported_until_it_is_read),
          T(watch, writable_is_reported_while_there_is_room), T(watch, both_come_in_one_call),
          T(watch, the_end_of_the_peer_is_readable), T(watch, interest_can_be_changed),
          T(watch, a_pipe_is_as_good_as_a_socket), T(watch, a_callback_stops_itself),
          T(watch, a_callback_stops_another_of_the_same_batch),
          T(watch, a_number_that_is_used_again_gets_nothing_of_its_predecessor),
          T(watch, stop_then_close_then_the_same_number), T(watch, misuse_has_names),
          T(watch, without_memory_nothing_is_watched),
          T(watch, a_stale_handle_never_reaches_its_successor), T(watch, sockets_stay_the_programs),
          T(watch, a_loop_on_a_network_in_memory_has_no_descriptors),
          T(watch, a_megabyte_through_watches))
