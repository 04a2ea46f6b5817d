// BACKENDS: all memory
//
// Datagrams on a loop: over the OS's sockets with every poller, and over the network in memory,
// where they get lost, overtake each other and arrive twice as the test wants it.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "engine.h"

#ifdef __linux__
static const bool on_linux = true;
#else
static const bool on_linux = false;
#endif
#ifdef _WIN32
static const bool on_windows = true;
#else
static const bool on_windows = false;
#endif

enum { MAX_UDP = 65507 };

static netio_loop *loop;

static void open_loop(void) { CHECK_OK(test_loop_create(&loop, NULL)); }

//================================================================================================
// An endpoint that notes what happens
//================================================================================================

typedef struct point {
    netio_udp u;
    netio_addr addr;
    int calls, got, drained, errors, closed;
    int err;       // of the last on_error
    int close_err; // of on_close
    size_t batch_max;
    size_t bytes;
    netio_datagram last; // without its data
    int seen[4096];      // by the number that a datagram begins with: how many times it came
    int order[4096];     // numbers as they came
    int wrong;           // content that was not sent
    const char *broken;  // a rule of the callbacks
    bool echo;
    void (*then)(struct point *p); // at the end of each on_datagrams
} point;

// Datagram number n is 4 bytes of n, then a stream of that seed.
static size_t write_numbered(void *buf, int n, size_t len)
{
    unsigned char *p = (unsigned char *)buf;
    memcpy(p, &n, sizeof n);
    stream_fill(p + sizeof n, len - sizeof n, (uint32_t)n + 1, 0);
    return len;
}

static void read_numbered(point *p, const netio_datagram *m)
{
    int n = -1;
    if (m->len >= sizeof n) memcpy(&n, m->data, sizeof n);
    bool known = n >= 0 && n < 4096;
    if (known && !m->truncated &&
        !stream_is((const unsigned char *)m->data + sizeof n, m->len - sizeof n, (uint32_t)n + 1,
                   0))
        p->wrong++;
    if (known) p->seen[n]++;
    if (p->got < 4096) p->order[p->got] = n;
}

static void on_datagrams(netio_udp u, netio_datagram *msgs, size_t count)
{
    point *p = (point *)netio_udp_user(u);
    if (count == 0) p->broken = "on_datagrams without any";
    if (p->closed) p->broken = "on_datagrams after on_close";
    if (test_calling) p->broken = "called back from inside a call";
    p->calls++;
    if (count > p->batch_max) p->batch_max = count;
    for (size_t i = 0; i < count; i++) {
        read_numbered(p, &msgs[i]);
        p->got++;
        p->bytes += msgs[i].len;
        p->last = msgs[i];
        if (msgs[i].len > msgs[i].cap) p->broken = "longer than its slot";
    }
    if (p->echo) CHECK_EQ(count, CALL((int)netio_udp_send_batch(u, msgs, count)));
    if (p->then) p->then(p);
}

static void on_drain(netio_udp u) { ((point *)netio_udp_user(u))->drained++; }

static void on_error(netio_udp u, int err)
{
    point *p = (point *)netio_udp_user(u);
    if (err >= 0) p->broken = "on_error without an error";
    p->errors++;
    p->err = err;
}

static void on_close(netio_udp u, int err)
{
    point *p = (point *)netio_udp_user(u);
    if (p->closed++) p->broken = "on_close twice";
    p->close_err = err;
}

static const netio_udp_handler handler = {on_datagrams, on_drain, on_error, on_close};

static void open_point(point *p, netio_loop *l, const char *address, const netio_udp_opts *opts)
{
    netio_udp_opts o;
    memset(p, 0, sizeof *p);
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    o.user = p;
    CHECK_OK(CALL(netio_udp_open(&p->u, l, address, &handler, &o)));
    CHECK_OK(netio_udp_addr(p->u, &p->addr));
    CHECK(netio_udp_user(p->u) == p);
    CHECK(netio_udp_loop(p->u) == l);
}

static void text_of(const netio_addr *a, char out[NETIO_ADDR_TEXT])
{
    CHECK(netio_addr_format(a, out, NETIO_ADDR_TEXT) > 0);
}

static void send_numbered(point *from, int n, size_t len, const netio_addr *to)
{
    static unsigned char buf[MAX_UDP];
    write_numbered(buf, n, len);
    CHECK_OK(CALL(netio_udp_send(from->u, buf, len, to)));
}

static void check_point(const point *p)
{
    if (p->broken) test_fail(__FILE__, __LINE__, "%s", p->broken);
    CHECK_EQ(0, p->wrong);
}

// Two endpoints of one loop, and their end, which is the same for every test.
static point a, b;

static void open_two(const netio_udp_opts *opts_a, const netio_udp_opts *opts_b)
{
    open_loop();
    open_point(&a, loop, "127.0.0.1:0", opts_a);
    open_point(&b, loop, "127.0.0.1:0", opts_b);
}

static void close_two(void)
{
    int closed_a = a.closed, closed_b = b.closed;
    test_loop_destroy(&loop);
    CHECK_EQ(1, a.closed);
    CHECK_EQ(1, b.closed);
    if (!closed_a) CHECK_ERR(NETIO_ECANCELED, a.close_err);
    if (!closed_b) CHECK_ERR(NETIO_ECANCELED, b.close_err);
    check_point(&a);
    check_point(&b);
}

//================================================================================================
// Sending and receiving
//================================================================================================

TEST(loop_udp, hundred_sizes_come_back_whole)
{
    open_two(NULL, NULL);
    b.echo = true;
    for (int i = 0; i < 100; i++) {
        size_t len = 4 + (size_t)i * (1472 - 4) / 99;
        send_numbered(&a, i, len, &b.addr);
        if (i % 10 == 9) RUN_UNTIL(loop, a.got > i); // so that the OS's buffer holds them
    }
    CHECK_EQ(100, a.got);
    CHECK_EQ(a.bytes, b.bytes);
    for (int i = 0; i < 100; i++) CHECK_EQ(1, a.seen[i]);
    CHECK(netio_addr_equal(&a.addr, &b.last.peer));
    CHECK(netio_addr_equal(&b.addr, &a.last.peer));
    close_two();
}

TEST(loop_udp, order_is_kept)
{
    netio_link jitter = {.latency_ms = 1};
    test_link(&jitter); // a delay alone reorders nothing
    open_two(NULL, NULL);
    for (int i = 0; i < 500; i++) {
        send_numbered(&a, i, 20, &b.addr);
        if (i % 50 == 49) RUN_UNTIL(loop, b.got > i);
    }
    for (int i = 0; i < 500; i++) CHECK_EQ(i, b.order[i]);
    close_two();
}

TEST(loop_udp, an_empty_datagram_is_a_datagram)
{
    open_two(NULL, NULL);
    CHECK_OK(netio_udp_send(a.u, NULL, 0, &b.addr));
    CHECK_OK(netio_udp_send(a.u, "", 0, &b.addr));
    send_numbered(&a, 7, 9, &b.addr);
    RUN_UNTIL(loop, b.got == 3);
    CHECK_EQ(9, b.bytes);
    CHECK_EQ(1, b.seen[7]);
    CHECK_EQ(7, b.order[2]);
    close_two();
}

TEST(loop_udp, what_waits_comes_in_batches)
{
    open_two(NULL, NULL);
    CHECK_OK(netio_udp_pause(b.u));
    for (int i = 0; i < 32; i++) send_numbered(&a, i, 100, &b.addr);
    test_run_for(loop, 20);
    CHECK_EQ(0, b.got);
    CHECK_OK(netio_udp_resume(b.u));
    RUN_UNTIL(loop, b.got == 32);
    if (on_linux || test_in_memory()) CHECK(b.batch_max > 1);
    for (int i = 0; i < 32; i++) CHECK_EQ(i, b.order[i]);
    close_two();
}

TEST(loop_udp, a_batch_is_sent_at_once_and_in_order)
{
    enum { N = 40 };
    unsigned char data[N][50];
    netio_datagram msgs[N];
    open_two(NULL, NULL);
    memset(msgs, 0, sizeof msgs);
    for (int i = 0; i < N; i++) {
        msgs[i].data = data[i];
        msgs[i].len = write_numbered(data[i], i, 10 + (size_t)i);
        msgs[i].peer = b.addr;
    }
    CHECK_EQ(N, CALL((int)netio_udp_send_batch(a.u, msgs, N)));
    memset(data, 0, sizeof data); // copied or gone
    CHECK_EQ(0, netio_udp_send_batch(a.u, msgs, 0));
    RUN_UNTIL(loop, b.got == N);
    for (int i = 0; i < N; i++) CHECK_EQ(i, b.order[i]);
    close_two();
}

TEST(loop_udp, data_is_copied_before_send_returns)
{
    unsigned char buf[64];
    open_two(NULL, NULL);
    for (int i = 0; i < 10; i++) {
        write_numbered(buf, i, sizeof buf);
        CHECK_OK(netio_udp_send(a.u, buf, sizeof buf, &b.addr));
    }
    memset(buf, 0, sizeof buf);
    RUN_UNTIL(loop, b.got == 10);
    for (int i = 0; i < 10; i++) CHECK_EQ(1, b.seen[i]);
    close_two();
}

TEST(loop_udp, to_nobody_is_not_connected)
{
    open_two(NULL, NULL);
    CHECK_ERR(NETIO_ENOTCONN, netio_udp_send(a.u, "x", 1, NULL));
    CHECK_EQ(0, a.errors);
    test_run_for(loop, 5);
    CHECK_EQ(0, a.errors);
    close_two();
}

TEST(loop_udp, an_endpoint_without_address_gets_one)
{
    netio_addr any;
    open_loop();
    open_point(&a, loop, NULL, NULL);
    open_point(&b, loop, "127.0.0.1:0", NULL);
    b.echo = true;
    send_numbered(&a, 1, 10, &b.addr);
    RUN_UNTIL(loop, a.got == 1);
    CHECK_OK(netio_udp_addr(a.u, &any));
    CHECK(netio_addr_port(&any) != 0);
    CHECK_EQ(netio_addr_port(&b.last.peer), netio_addr_port(&any));
    close_two();
}

TEST(loop_udp, a_port_belongs_to_one)
{
    char text[NETIO_ADDR_TEXT];
    netio_udp other = {0};
    open_two(NULL, NULL);
    text_of(&a.addr, text);
    CHECK_ERR(NETIO_EADDRINUSE, netio_udp_open(&other, loop, text, &handler, NULL));
    CHECK(other.ptr == NULL);
    CHECK_ERR(NETIO_EINVAL, netio_udp_open(&other, loop, "127.0.0.1:x", &handler, NULL));
    CHECK_ERR(NETIO_EINVAL, netio_udp_open(&other, loop, "localhost:0", &handler, NULL));
    netio_udp_close(a.u);
    RUN_UNTIL(loop, a.closed);
    CHECK_ERR(0, a.close_err);
    point again;
    open_point(&again, loop, text, NULL); // at once
    send_numbered(&b, 3, 30, &again.addr);
    RUN_UNTIL(loop, again.got == 1);
    close_two();
    CHECK_EQ(1, again.closed);
}

TEST(loop_udp, where_it_was_sent_to_is_told)
{
    static const netio_setting local = {NETIO_OPT_RECV_LOCAL, 1, NULL};
    netio_udp_opts opts;
    netio_addr to;
    memset(&opts, 0, sizeof opts);
    opts.socket.settings = &local;
    opts.socket.setting_count = 1;
    if (test_in_memory()) SKIP("the network in memory has no such setting");
    if (!netio_option_supported(NETIO_OPT_RECV_LOCAL)) SKIP("this system does not tell");
    open_loop();
    open_point(&a, loop, "127.0.0.1:0", NULL);
    open_point(&b, loop, "0.0.0.0:0", &opts);
    b.echo = true;
    to = a.addr;
    netio_addr_set_port(&to, netio_addr_port(&b.addr));
    send_numbered(&a, 1, 10, &to);
    RUN_UNTIL(loop, a.got == 1);
    CHECK(netio_addr_equal_host(&to, &b.last.local));
    CHECK(b.last.ifindex > 0);
    CHECK(netio_addr_equal(&to, &a.last.peer)); // and the answer came from there
    close_two();
}

//================================================================================================
// Sizes
//================================================================================================

TEST(loop_udp, the_largest_datagram_and_one_byte_more)
{
    static unsigned char buf[MAX_UDP + 1];
    netio_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.datagram_max = 65536;
    open_two(NULL, &opts);
    CHECK_ERR(NETIO_EMSGSIZE, netio_udp_send(a.u, buf, MAX_UDP + 1, &b.addr));
    send_numbered(&a, 5, MAX_UDP, &b.addr);
    RUN_UNTIL(loop, b.got == 1);
    CHECK_EQ(MAX_UDP, b.bytes);
    CHECK_EQ(1, b.seen[5]);
    CHECK(!b.last.truncated);
    close_two();
}

TEST(loop_udp, what_is_longer_than_its_slot_is_cut_and_counted)
{
    netio_udp_opts opts;
    netio_stats s;
    memset(&opts, 0, sizeof opts);
    opts.datagram_max = 100;
    open_two(NULL, &opts);
    send_numbered(&a, 1, 100, &b.addr);
    RUN_UNTIL(loop, b.got == 1);
    CHECK(!b.last.truncated);
    CHECK_EQ(100, b.last.len);
    send_numbered(&a, 2, 300, &b.addr);
    RUN_UNTIL(loop, b.got == 2);
    CHECK(b.last.truncated);
    CHECK_EQ(100, b.last.len);
    CHECK_EQ(on_linux || test_in_memory() ? 300 : 101, b.last.full);
    CHECK_OK(netio_udp_stats(b.u, &s));
    CHECK_EQ(1, s.drops);
    send_numbered(&a, 3, 50, &b.addr);
    RUN_UNTIL(loop, b.got == 3);
    CHECK(!b.last.truncated);
    close_two();
}

TEST(loop_udp, the_usual_slot_holds_2048_bytes)
{
    open_two(NULL, NULL);
    send_numbered(&a, 1, 2048, &b.addr);
    RUN_UNTIL(loop, b.got == 1);
    CHECK(!b.last.truncated && b.last.len == 2048);
    send_numbered(&a, 2, 2049, &b.addr);
    RUN_UNTIL(loop, b.got == 2);
    CHECK(b.last.truncated && b.last.len == 2048);
    close_two();
}

//================================================================================================
// A peer
//================================================================================================

TEST(loop_udp, a_connected_one_talks_to_its_peer_alone)
{
    netio_udp_opts opts;
    char text[NETIO_ADDR_TEXT];
    point stranger;
    open_loop();
    open_point(&b, loop, "127.0.0.1:0", NULL);
    open_point(&stranger, loop, "127.0.0.1:0", NULL);
    memset(&opts, 0, sizeof opts);
    text_of(&b.addr, text);
    opts.peer = text;
    open_point(&a, loop, "127.0.0.1:0", &opts);
    b.echo = true;
    send_numbered(&stranger, 9, 10, &a.addr);
    send_numbered(&a, 1, 10, NULL);
    send_numbered(&a, 2, 10, NULL);
    RUN_UNTIL(loop, a.got == 2);
    test_run_for(loop, 10);
    CHECK_EQ(2, a.got);
    CHECK_EQ(0, a.seen[9]);
    opts.peer = "localhost:80"; // no name
    CHECK_ERR(NETIO_EINVAL, netio_udp_open(NULL, loop, NULL, &handler, &opts));
    close_two();
}

TEST(loop_udp, a_port_that_is_closed_is_an_error_and_no_end)
{
    netio_udp_opts opts;
    char text[NETIO_ADDR_TEXT];
    open_loop();
    open_point(&b, loop, "127.0.0.1:0", NULL);
    netio_addr closed = b.addr;
    text_of(&closed, text);
    netio_udp_close(b.u);
    RUN_UNTIL(loop, b.closed);
    memset(&opts, 0, sizeof opts);
    opts.peer = text;
    open_point(&a, loop, "127.0.0.1:0", &opts);
    if (test_under("wine")) {
        test_loop_destroy(&loop);
        SKIP("Wine loses the ICMP error when its poll sees it first");
    }
    for (int i = 1; i <= 3; i++) {
        send_numbered(&a, i, 10, NULL);
        RUN_UNTIL(loop, a.errors >= i);
        CHECK_ERR(NETIO_ECONNREFUSED, a.err);
        CHECK_EQ(0, a.closed);
    }
    open_point(&b, loop, text, NULL); // now somebody is there
    b.echo = true;
    int errors = a.errors;
    for (int i = 10; b.got == 0 || a.got == 0; i++) {
        send_numbered(&a, i, 10, NULL);
        test_run_for(loop, 5);
        CHECK(i < 100);
    }
    CHECK(a.errors <= errors + 1);
    close_two();
}

TEST(loop_udp, an_unconnected_one_hears_of_no_closed_port)
{
    open_two(NULL, NULL);
    netio_addr closed = b.addr;
    netio_udp_close(b.u);
    RUN_UNTIL(loop, b.closed);
    for (int i = 0; i < 5; i++) {
        send_numbered(&a, i, 10, &closed);
        test_run_for(loop, 5);
    }
    send_numbered(&a, 7, 10, &a.addr); // to itself
    RUN_UNTIL(loop, a.got == 1);
    CHECK_EQ(0, a.errors);
    CHECK_EQ(1, a.seen[7]);
    close_two();
}

//================================================================================================
// Pause, close, adopt
//================================================================================================

static void pause_it(point *p) { CHECK_OK(netio_udp_pause(p->u)); }
static void close_it(point *p) { netio_udp_close(p->u); }
static void close_other(point *p) { netio_udp_close(p == &a ? b.u : a.u); }

TEST(loop_udp, pause_in_a_callback)
{
    open_two(NULL, NULL);
    b.then = pause_it;
    send_numbered(&a, 0, 10, &b.addr);
    RUN_UNTIL(loop, b.got == 1);
    send_numbered(&a, 1, 10, &b.addr);
    send_numbered(&a, 2, 10, &b.addr);
    test_run_for(loop, 20);
    CHECK_EQ(1, b.got);
    b.then = NULL;
    CHECK_OK(netio_udp_pause(b.u)); // twice is once
    CHECK_OK(netio_udp_resume(b.u));
    CHECK_OK(netio_udp_resume(b.u));
    RUN_UNTIL(loop, b.got == 3);
    CHECK_EQ(2, b.order[2]);
    close_two();
}

TEST(loop_udp, close_sends_what_is_queued)
{
    open_two(NULL, NULL);
    for (int i = 0; i < 10; i++) send_numbered(&a, i, 100, &b.addr);
    netio_udp_close(a.u);
    CHECK_ERR(NETIO_ESTALE, netio_udp_send(a.u, "x", 1, &b.addr));
    CHECK_ERR(NETIO_ESTALE, netio_udp_pause(a.u));
    CHECK_ERR(NETIO_ESTALE, netio_udp_resume(a.u));
    netio_udp_close(a.u);
    CHECK_EQ(0, a.closed); // from the loop only
    RUN_UNTIL(loop, b.got == 10 && a.closed);
    CHECK_ERR(0, a.close_err);
    for (int i = 0; i < 10; i++) CHECK_EQ(i, b.order[i]);
    close_two();
}

TEST(loop_udp, close_in_a_callback_is_the_last_of_it)
{
    open_two(NULL, NULL);
    b.then = close_it;
    send_numbered(&a, 1, 10, &b.addr);
    RUN_UNTIL(loop, b.closed);
    CHECK_EQ(1, b.calls);
    for (int i = 0; i < 5; i++) send_numbered(&a, i, 10, &b.addr);
    test_run_for(loop, 10);
    CHECK_EQ(1, b.calls);
    close_two();
}

TEST(loop_udp, close_the_neighbour_of_the_same_batch)
{
    for (int i = 0; i < 5; i++) {
        point c;
        open_two(NULL, NULL);
        open_point(&c, loop, "127.0.0.1:0", NULL);
        a.then = b.then = close_other;
        send_numbered(&c, 1, 10, &a.addr);
        send_numbered(&c, 1, 10, &b.addr);
        RUN_UNTIL(loop, a.closed + b.closed > 0);
        test_run_for(loop, 10);
        CHECK_EQ(1, a.closed + b.closed);
        CHECK_BETWEEN(1, 2, a.got + b.got); // both had come, or only the first
        close_two();
        CHECK_EQ(1, c.closed);
    }
}

TEST(loop_udp, a_stale_handle_never_reaches_its_successor)
{
    static const netio_udp nothing;
    netio_udp old[20];
    netio_addr addr;
    open_loop();
    for (int i = 0; i < 20; i++) {
        open_point(&a, loop, "127.0.0.1:0", NULL);
        old[i] = a.u;
        netio_udp_close(a.u);
        RUN_UNTIL(loop, a.closed);
    }
    open_point(&a, loop, "127.0.0.1:0", NULL);
    open_point(&b, loop, "127.0.0.1:0", NULL);
    for (int i = 0; i < 20; i++) {
        netio_udp_close(old[i]);
        CHECK_ERR(NETIO_ESTALE, netio_udp_send(old[i], "x", 1, &b.addr));
        CHECK_ERR(NETIO_ESTALE, netio_udp_addr(old[i], &addr));
        CHECK(netio_udp_user(old[i]) == NULL);
        CHECK(netio_udp_loop(old[i]) == NULL);
    }
    netio_udp_close(nothing);
    CHECK_ERR(NETIO_ESTALE, netio_udp_send(nothing, "x", 1, &b.addr));
    send_numbered(&a, 1, 10, &b.addr);
    RUN_UNTIL(loop, b.got == 1);
    close_two();
}

TEST(loop_udp, adopt_takes_a_socket_made_elsewhere)
{
    netio_socket s, tcp[2];
    netio_udp_opts opts;
    netio_datagram m;
    open_loop();
    memset(&opts, 0, sizeof opts);
    memset(&a, 0, sizeof a);
    opts.user = &a;
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    if (test_in_memory()) {
        CHECK_ERR(NETIO_ENOTSUP, netio_udp_adopt(&a.u, loop, s, &handler, &opts));
        CHECK_OK(netio_close(&s)); // still ours
        test_loop_destroy(&loop);
        return;
    }
    test_tcp_pair(&tcp[0], &tcp[1]);
    CHECK_ERR(NETIO_EINVAL, netio_udp_adopt(&a.u, loop, tcp[0], &handler, &opts));
    CHECK_OK(netio_close(&tcp[0]));
    CHECK_OK(netio_close(&tcp[1]));
    CHECK_OK(netio_udp_adopt(&a.u, loop, s, &handler, &opts));
    CHECK_OK(netio_udp_addr(a.u, &a.addr));
    CHECK_OK(netio_udp_socket(a.u, &s));
    CHECK_OK(netio_set_option(s, NETIO_OPT_BROADCAST, 1)); // options are set on the socket
    open_point(&b, loop, "127.0.0.1:0", NULL);
    b.echo = true;
    memset(&m, 0, sizeof m);
    send_numbered(&a, 1, 10, &b.addr);
    RUN_UNTIL(loop, a.got == 1);
    close_two();
}

TEST(loop_udp, a_socket_in_memory_is_none)
{
    netio_socket s;
    if (!test_in_memory()) SKIP("over sockets");
    open_two(NULL, NULL);
    CHECK_ERR(NETIO_ENOTSUP, netio_udp_socket(a.u, &s));
    close_two();
}

TEST(loop_udp, without_memory_it_fails_by_name_and_keeps_nothing)
{
    netio_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    open_loop();
    for (long n = 1;; n++) {
        memset(&a, 0, sizeof a);
        opts.user = &a;
        test_alloc_fail_at(n);
        int err = netio_udp_open(&a.u, loop, "127.0.0.1:0", &handler, &opts);
        test_alloc_fail_at(0);
        if (err == 0) break;
        CHECK_ERR(NETIO_ENOMEM, err);
        CHECK(a.u.ptr == NULL && n < 50);
    }
    CHECK_OK(netio_udp_addr(a.u, &a.addr));
    open_point(&b, loop, "127.0.0.1:0", NULL);
    int taken = 0;
    for (long n = 1; n < 200; n++) { // of sends and of turns
        unsigned char buf[1000];
        write_numbered(buf, (int)n, sizeof buf);
        test_alloc_fail_at(n % 8);
        int err = netio_udp_send(a.u, buf, sizeof buf, &b.addr);
        if (err != 0) CHECK_ERR(NETIO_ENOMEM, err);
        taken += err == 0;
        if (n % 4 == 0) CHECK(netio_loop_run_once(loop, 5) >= 0);
        test_alloc_fail_at(0);
    }
    test_run_for(loop, 50);
    CHECK_BETWEEN(1, taken, b.got);
    send_numbered(&a, 1000, 10, &b.addr);
    RUN_UNTIL(loop, b.seen[1000] == 1);
    close_two();
}

//================================================================================================
// Back-pressure
//================================================================================================

// Sends until the queue is full. Returns how many were taken.
static int fill(point *p, const netio_addr *to, size_t len)
{
    static unsigned char buf[MAX_UDP];
    int n = 0, err = 0;
    for (; n < 4096 && err == 0; n++) {
        write_numbered(buf, n, len);
        err = CALL(netio_udp_send(p->u, buf, len, to));
        if (n % 16 == 15) CHECK(netio_loop_run_once(loop, 0) >= 0);
    }
    CHECK_ERR(NETIO_ENOBUFS, err);
    return n - 1;
}

// A Unix datagram socket is the one that makes a sender wait, over the OS.
TEST(loop_udp, a_full_queue_drops_by_name_and_drains)
{
    netio_socket pair[2];
    netio_udp_opts opts;
    netio_stats s;
    unsigned char buf[1000];
    point want;
    if (test_in_memory()) SKIP("see a_narrow_link_makes_the_sender_wait");
    if (on_windows) SKIP("no datagram socket of Windows makes its sender wait");
    open_loop();
    CHECK_OK(netio_pair(pair, NETIO_DGRAM));
    memset(&opts, 0, sizeof opts);
    memset(&a, 0, sizeof a);
    memset(&want, 0, sizeof want);
    opts.user = &a;
    opts.write_queue_max = 50000;
    CHECK_OK(netio_udp_adopt(&a.u, loop, pair[0], &handler, &opts));
    int taken = fill(&a, NULL, sizeof buf);
    CHECK_BETWEEN(45, 4000, taken);
    CHECK_OK(netio_udp_stats(a.u, &s));
    CHECK_EQ(1, s.drops);
    test_run_for(loop, 10);
    CHECK_EQ(0, a.drained);
    int got = 0;
    while (got < taken) { // all that were taken, in order, and no other
        netio_datagram m;
        ptrdiff_t n = netio_recv(pair[1], buf, sizeof buf, 0);
        if (n < 0) CHECK(netio_loop_run_once(loop, 100) >= 0);
        if (n < 0) continue;
        memset(&m, 0, sizeof m);
        m.data = buf;
        m.len = (size_t)n;
        read_numbered(&want, &m);
        CHECK_EQ(got, want.order[want.got++]);
        got++;
    }
    CHECK_EQ(0, want.wrong);
    RUN_UNTIL(loop, a.drained > 0);
    CHECK_EQ(1, a.drained);
    CHECK_ERR(NETIO_EAGAIN, netio_recv(pair[1], buf, sizeof buf, 0));
    CHECK_OK(netio_udp_send(a.u, "x", 1, NULL));
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_ERR(1, netio_recv(pair[1], buf, sizeof buf, 1000));
    CHECK_EQ(0, a.errors);
    test_loop_destroy(&loop);
    CHECK_EQ(1, a.closed);
    check_point(&a);
    CHECK_OK(netio_close(&pair[1]));
}

// Closing waits for the queue, but not for ever: the peer here never reads.
TEST(loop_udp, close_gives_a_stuck_queue_one_second)
{
    netio_socket pair[2];
    netio_udp_opts opts;
    if (test_in_memory()) SKIP("see a_cut_link_holds_up_no_close");
    if (on_windows) SKIP("no datagram socket of Windows makes its sender wait");
    open_loop();
    CHECK_OK(netio_pair(pair, NETIO_DGRAM));
    memset(&opts, 0, sizeof opts);
    memset(&a, 0, sizeof a);
    opts.user = &a;
    opts.write_queue_max = 20000;
    CHECK_OK(netio_udp_adopt(&a.u, loop, pair[0], &handler, &opts));
    fill(&a, NULL, 1000);
    uint64_t start = netio_now_us();
    netio_udp_close(a.u);
    CHECK_OK(netio_loop_run(loop));
    CHECK_BETWEEN(500000, 8000000, netio_now_us() - start);
    CHECK_EQ(1, a.closed);
    test_loop_destroy(&loop);
    CHECK_OK(netio_close(&pair[1]));
}

TEST(loop_udp, a_narrow_link_makes_the_sender_wait)
{
    netio_link narrow;
    netio_udp_opts opts;
    netio_stats s;
    if (!test_in_memory()) SKIP("over sockets");
    memset(&narrow, 0, sizeof narrow);
    narrow.bandwidth = 100000;
    memset(&opts, 0, sizeof opts);
    opts.write_queue_max = 20000;
    open_two(&opts, NULL);
    test_link(&narrow);
    uint64_t start = netio_network_now_us(test_network());
    int taken = fill(&a, &b.addr, 1000);
    CHECK_OK(netio_udp_stats(a.u, &s));
    CHECK_EQ(1, s.drops);
    RUN_UNTIL(loop, a.drained > 0);
    CHECK_EQ(1, a.drained);
    RUN_UNTIL(loop, b.got == taken);
    // So many bytes take so long, but for a burst and what a link holds itself.
    uint64_t took = netio_network_now_us(test_network()) - start;
    CHECK_BETWEEN((taken - 20) * 10000, taken * 10000 + 100000, took);
    for (int i = 0; i < taken; i++) CHECK_EQ(i, b.order[i]);
    close_two();
}

TEST(loop_udp, a_cut_link_holds_up_no_close)
{
    netio_link cut;
    if (!test_in_memory()) SKIP("over sockets");
    memset(&cut, 0, sizeof cut);
    cut.cut = true;
    open_two(NULL, NULL);
    test_link(&cut);
    for (int i = 0; i < 10; i++) send_numbered(&a, i, 100, &b.addr);
    test_run_for(loop, 1000);
    CHECK_EQ(0, b.got);
    CHECK_EQ(0, a.errors);
    netio_udp_close(a.u);
    uint64_t start = netio_network_now_us(test_network());
    RUN_UNTIL(loop, a.closed);
    CHECK_BETWEEN(0, 1100000, netio_network_now_us(test_network()) - start);
    CHECK_EQ(0, b.got);
    close_two();
}

//================================================================================================
// Counters
//================================================================================================

TEST(loop_udp, counters_count_datagrams)
{
    netio_stats sa, sb, all;
    open_two(NULL, NULL);
    b.echo = true;
    for (int i = 0; i < 30; i++) {
        send_numbered(&a, i, 100, &b.addr);
        RUN_UNTIL(loop, a.got == i + 1);
    }
    CHECK_OK(netio_udp_stats(a.u, &sa));
    CHECK_OK(netio_udp_stats(b.u, &sb));
    CHECK_EQ(3000, sa.bytes_in);
    CHECK_EQ(3000, sa.bytes_out);
    CHECK_EQ(3000, sb.bytes_in);
    CHECK_EQ(3000, sb.bytes_out);
    CHECK_EQ(30, sa.reads);
    CHECK_EQ(30, sa.writes);
    CHECK_EQ(0, sa.drops + sb.drops);
    CHECK(sa.active_ms >= sa.opened_ms);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    netio_loop_stats(loop, &all);
    CHECK_EQ(6000, all.bytes_in);
    CHECK_EQ(6000, all.bytes_out);
    close_two();
}

TEST(loop_udp, a_flood_leaves_time_for_others)
{
    int sent = 0;
    netio_socket flood;
    netio_link smooth = {0};
    if (test_in_memory()) SKIP("time stands still there while there is work");
    test_link(&smooth);
    open_two(NULL, NULL);
    CHECK_OK(netio_bind(&flood, "127.0.0.1:0", NULL));
    for (int turns = 0; turns < 50; turns++) {
        static unsigned char buf[64];
        for (int i = 0; i < 300; i++) {
            write_numbered(buf, i, sizeof buf);
            if (netio_sendto(flood, buf, sizeof buf, &b.addr, 0) > 0) sent++;
        }
        int before = a.got;
        send_numbered(&b, turns, 10, &a.addr);
        for (int i = 0; i < 3; i++) CHECK(netio_loop_run_once(loop, 0) >= 0);
        CHECK_EQ(before + 1, a.got); // within three turns, whatever comes in beside it
    }
    CHECK(b.got <= sent && b.got > 0);
    CHECK_OK(netio_close(&flood));
    close_two();
}

//================================================================================================
// Only in memory: what a network does to datagrams
//================================================================================================

static void need_memory(void)
{
    if (!test_in_memory()) SKIP("over sockets");
}

enum { MANY = 4000 };

static void send_many(int64_t pause_ms)
{
    for (int i = 0; i < MANY; i++) {
        send_numbered(&a, i, 40, &b.addr);
        if (i % 20 == 19) test_run_for(loop, (int)pause_ms);
    }
    test_run_for(loop, 1000);
}

TEST(loop_udp, loss_loses_its_share)
{
    netio_link link;
    need_memory();
    memset(&link, 0, sizeof link);
    link.loss_permille = 200;
    open_two(NULL, NULL);
    test_link(&link);
    send_many(1);
    CHECK_BETWEEN(MANY * 75 / 100, MANY * 85 / 100, b.got);
    for (int i = 1; i < b.got; i++) CHECK(b.order[i] > b.order[i - 1]); // lost, not reordered
    link.loss_permille = 1000;
    test_link(&link);
    int got = b.got;
    for (int i = 0; i < 50; i++) send_numbered(&a, i, 40, &b.addr);
    test_run_for(loop, 100);
    CHECK_EQ(got, b.got);
    close_two();
}

TEST(loop_udp, some_arrive_twice)
{
    netio_link link;
    int twice = 0;
    need_memory();
    memset(&link, 0, sizeof link);
    link.duplicate_permille = 100;
    open_two(NULL, NULL);
    test_link(&link);
    send_many(1);
    for (int i = 0; i < MANY; i++) {
        CHECK_BETWEEN(1, 2, b.seen[i]);
        twice += b.seen[i] == 2;
    }
    CHECK_EQ(MANY + twice, b.got);
    CHECK_BETWEEN(MANY * 7 / 100, MANY * 13 / 100, twice);
    close_two();
}

TEST(loop_udp, jitter_lets_them_overtake_each_other)
{
    netio_link link;
    int overtaken = 0;
    need_memory();
    memset(&link, 0, sizeof link);
    link.latency_ms = 10;
    link.jitter_ms = 30;
    open_two(NULL, NULL);
    test_link(&link);
    send_many(2);
    CHECK_EQ(MANY, b.got);
    for (int i = 0; i < MANY; i++) CHECK_EQ(1, b.seen[i]);
    for (int i = 1; i < MANY; i++) overtaken += b.order[i] < b.order[i - 1];
    CHECK_BETWEEN(MANY / 20, MANY, overtaken);
    close_two();
}

TEST(loop_udp, latency_is_exact)
{
    netio_link link;
    need_memory();
    memset(&link, 0, sizeof link);
    link.latency_ms = 25;
    open_two(NULL, NULL);
    test_link(&link);
    b.echo = true;
    for (int i = 0; i < 10; i++) {
        uint64_t start = netio_network_now_us(test_network());
        send_numbered(&a, i, 40, &b.addr);
        RUN_UNTIL(loop, a.got == i + 1);
        CHECK_EQ(50000, netio_network_now_us(test_network()) - start);
    }
    close_two();
}

// Two networks of one seed, loss and jitter and all: the same datagrams in the same order.
static void run_seed(uint64_t seed, int *order, int *got)
{
    netio_network_opts opts;
    netio_loop_opts loop_opts;
    netio_network *net;
    memset(&opts, 0, sizeof opts);
    memset(&loop_opts, 0, sizeof loop_opts);
    opts.seed = seed;
    opts.link.latency_ms = 5;
    opts.link.jitter_ms = 20;
    opts.link.loss_permille = 100;
    opts.link.duplicate_permille = 100;
    CHECK_OK(netio_network_create(&net, &opts));
    loop_opts.network = net;
    CHECK_OK(netio_loop_create(&loop, &loop_opts));
    open_point(&a, loop, "127.0.0.1:0", NULL);
    open_point(&b, loop, "127.0.0.1:0", NULL);
    for (int i = 0; i < 500; i++) {
        send_numbered(&a, i, 40, &b.addr);
        CHECK_OK(netio_network_run(net, 1));
    }
    CHECK_OK(netio_network_run(net, 100));
    memcpy(order, b.order, sizeof b.order);
    *got = b.got;
    CHECK_ERR(NETIO_EBUSY, netio_network_destroy(net));
    CHECK_OK(netio_loop_destroy(loop));
    CHECK_OK(netio_network_destroy(net));
}

TEST(loop_udp, one_seed_one_order)
{
    static int order[3][4096];
    int got[3];
    need_memory();
    run_seed(7, order[0], &got[0]);
    run_seed(7, order[1], &got[1]);
    run_seed(8, order[2], &got[2]);
    CHECK_EQ(got[0], got[1]);
    CHECK_MEM(order[0], order[1], sizeof order[0]);
    CHECK(memcmp(order[0], order[2], sizeof order[0]) != 0);
}

// Two hosts with a link of their own between them.
TEST(loop_udp, two_hosts_have_their_own_link)
{
    netio_link slow;
    netio_loop *far;
    point c;
    need_memory();
    memset(&slow, 0, sizeof slow);
    slow.latency_ms = 40;
    open_loop();
    CHECK_OK(test_loop_create(&far, NULL)); // 10.0.0.2
    CHECK_OK(netio_network_link(test_network(), "127.0.0.1", "10.0.0.2", &slow));
    open_point(&a, loop, "127.0.0.1:0", NULL);
    open_point(&b, loop, "127.0.0.1:0", NULL);
    open_point(&c, far, "10.0.0.2:0", NULL);
    c.echo = true;
    uint64_t start = netio_network_now_us(test_network());
    send_numbered(&a, 1, 40, &c.addr);
    CHECK_OK(netio_network_run(test_network(), 79));
    CHECK_EQ(1, c.got);
    CHECK_EQ(0, a.got);
    CHECK_OK(netio_network_run(test_network(), 1));
    CHECK_EQ(1, a.got);
    CHECK_EQ(80000, netio_network_now_us(test_network()) - start);
    slow.cut = true; // a partition, and its end
    CHECK_OK(netio_network_link(test_network(), "10.0.0.2", "127.0.0.1", &slow));
    send_numbered(&a, 2, 40, &c.addr);
    send_numbered(&a, 3, 40, &b.addr);
    CHECK_OK(netio_network_run(test_network(), 1000));
    CHECK_EQ(1, c.got);
    CHECK_EQ(1, b.got);
    slow.cut = false;
    CHECK_OK(netio_network_link(test_network(), "127.0.0.1", "10.0.0.2", &slow));
    send_numbered(&a, 4, 40, &c.addr);
    CHECK_OK(netio_network_run(test_network(), 1000));
    CHECK_EQ(2, c.got);
    CHECK_EQ(0, c.seen[2]);
    test_loop_destroy(&far);
    CHECK_EQ(1, c.closed);
    check_point(&c);
    close_two();
}

TEST_MAIN("loop_udp", T(loop_udp, hundred_sizes_come_back_whole), T(loop_udp, order_is_kept),
          T(loop_udp, an_empty_datagram_is_a_datagram), T(loop_udp, what_waits_comes_in_batches),
          T(loop_udp, a_batch_is_sent_at_once_and_in_order),
          T(loop_udp, data_is_copied_before_send_returns), T(loop_udp, to_nobody_is_not_connected),
          T(loop_udp, an_endpoint_without_address_gets_one), T(loop_udp, a_port_belongs_to_one),
          T(loop_udp, where_it_was_sent_to_is_told),
          T(loop_udp, the_largest_datagram_and_one_byte_more),
          T(loop_udp, what_is_longer_than_its_slot_is_cut_and_counted),
          T(loop_udp, the_usual_slot_holds_2048_bytes),
          T(loop_udp, a_connected_one_talks_to_its_peer_alone),
          T(loop_udp, a_port_that_is_closed_is_an_error_and_no_end),
          T(loop_udp, an_unconnected_one_hears_of_no_closed_port), T(loop_udp, pause_in_a_callback),
          T(loop_udp, close_sends_what_is_queued),
          T(loop_udp, close_in_a_callback_is_the_last_of_it),
          T(loop_udp, close_the_neighbour_of_the_same_batch),
          T(loop_udp, a_stale_handle_never_reaches_its_successor),
          T(loop_udp, adopt_takes_a_socket_made_elsewhere), T(loop_udp, a_socket_in_memory_is_none),
          T(loop_udp, without_memory_it_fails_by_name_and_keeps_nothing),
          T(loop_udp, a_full_queue_drops_by_name_and_drains),
          T(loop_udp, close_gives_a_stuck_queue_one_second),
          T(loop_udp, a_narrow_link_makes_the_sender_wait),
          T(loop_udp, a_cut_link_holds_up_no_close), T(loop_udp, counters_count_datagrams),
          T(loop_udp, a_flood_leaves_time_for_others), T(loop_udp, loss_loses_its_share),
          T(loop_udp, some_arrive_twice), T(loop_udp, jitter_lets_them_overtake_each_other),
          T(loop_udp, latency_is_exact), T(loop_udp, one_seed_one_order),
          T(loop_udp, two_hosts_have_their_own_link))
