// BACKENDS: all memory
//
// Connections while memory runs out, or system calls go wrong, at the n-th use for every n. The
// linker puts the functions below between the library and the C library (Linux only):
//
// WRAP: accept accept4 bind close connect dup dup3 epoll_create1 epoll_ctl epoll_wait eventfd fcntl
// WRAP: fstat getpeername getsockname getsockopt ioctl listen lstat pipe2 poll pread pthread_create
// WRAP: read recv recvfrom recvmsg select send sendfile sendmsg sendto setsockopt shutdown socket
// WRAP: socketpair splice unlink write
//
// What must hold, whatever goes wrong: each connection that was handed out ends once; its bytes are
// right as far as they came; what goes wrong with one does not end the listener or the loop; no
// descriptor and no memory stays behind; nothing hangs. What the system may do at any time (a
// signal, a part of the work, EAGAIN, a client that left the queue) must not show at all.
#define _GNU_SOURCE
#define FAULT_SPLICE 1
#include "engine.h"
#include "fault.h"

//================================================================================================
// A world that a fault may hit at any point
//================================================================================================

static struct {
    netio_loop *loop;
    netio_listener listener;
    char addr[NETIO_ADDR_TEXT];
    pool p;
    end served[4], client, second;
    uint64_t until;
} w;

// What a connection's end told: as if the call that made it had failed.
static void tell_end(const end *e, int line)
{
    if (e->closed && e->err < 0 && !told.err) {
        told.err = e->err;
        told.os = e->error.os_code;
        told.at_line = line;
        told.by_fault = f.hit;
    }
    if (e->closed > 1 || e->broken || e->wrong) {
        if (e->broken) printf("    %s (callbacks: %s)\n", e->broken, e->log);
        if (!told.broken_line) told.broken_line = line;
    }
}

// Turns of the loop until a condition holds, half a minute of virtual or a second of real time.
#define PUMP(cond)                                                                                 \
    do {                                                                                           \
        w.until = test_ms() + (f.storm ? 2500 : 1500);                                             \
        while (!(cond)) {                                                                          \
            TRY(netio_loop_run_once(w.loop, 20));                                                  \
            if (test_ms() > w.until) BROKEN();                                                     \
        }                                                                                          \
    } while (0)

static void world_begin(void)
{
    memset(&w, 0, sizeof w);
    w.p.kind = KIND_POOL;
    w.p.ends = w.served;
    w.p.cap = 4;
    w.client.random = w.p.like.random = 7;
}

static int world_open(const netio_handler *served, netio_listener_opts *listen)
{
    netio_addr a;
    TRY(test_loop_create(&w.loop, NULL));
    listen->conn.user = &w.p;
    TRY(netio_listener_open(&w.listener, w.loop, test_loop_addr(), served, listen));
    TRY(netio_listener_addr(w.listener, &a));
    if (netio_addr_format(&a, w.addr, sizeof w.addr) <= 0) BROKEN();
    return 0;
out:
    return -1;
}

static void world_end(void)
{
    if (w.loop) test_loop_destroy(&w.loop);
    armed = false;
    for (size_t i = 0; i < w.p.used; i++) {
        tell_end(&w.p.ends[i], __LINE__);
        if (w.p.ends[i].closed != w.p.ends[i].opened && !told.broken_line)
            told.broken_line = __LINE__;
    }
    if (w.client.c.ptr && w.client.closed != 1 && !told.broken_line) told.broken_line = __LINE__;
    if (w.second.c.ptr && w.second.closed != 1 && !told.broken_line) told.broken_line = __LINE__;
}

static int dial(end *e, const char *address, netio_dial_opts *opts)
{
    opts->conn.user = e;
    opts->conn.close_timeout_ms = 100;
    opts->timeout_ms = 1000;
    return (int)DO(netio_conn_dial(&e->c, w.loop, address, &end_all, opts));
}

// The fault said that the peer is gone, which it was not: so it may see a clean end too early.
static bool lied(void)
{
    return f.hit && (f.err == ECONNRESET || f.err == EPIPE || f.err == ETIMEDOUT);
}

//================================================================================================
// Stories
//================================================================================================

static char file_path[300]; // of a file of 3000 bytes of the stream 1

// An echo that cannot answer says so.
static void abort_if_failed(end *e, int what, const void *data, size_t len)
{
    (void)what, (void)data, (void)len;
    if (e->echo_failed) netio_conn_abort(e->c);
}

// One connection: all forms of writing, echo, both ends. Then another, to show that the loop and
// the listener have not been hurt.
static void echo_story(void)
{
    static char buf[3000];
    netio_listener_opts listen;
    netio_dial_opts opts;
    netio_buf bufs[2] = {{buf + 400, 300}, {buf + 700, 300}};
    FILE *file = fopen(file_path, "rb");
    memset(&listen, 0, sizeof listen);
    memset(&opts, 0, sizeof opts);
    world_begin();
    stream_fill(buf, sizeof buf, 1, 0);
    w.p.like.echo = true;
    w.p.like.on = abort_if_failed;
    listen.conn.close_timeout_ms = 100;
    if (world_open(&end_plain, &listen) < 0) goto out;

    w.client.seed = 1;
    if (dial(&w.client, w.addr, &opts) < 0) goto out;
    PUMP(w.client.opened || w.client.closed);
    if (w.client.opened && !w.client.closed) {
        int err = (int)DO(netio_conn_write(w.client.c, buf, 400));
        if (err == 0) err = (int)DO(netio_conn_writev(w.client.c, bufs, 2));
        if (err == 0)
            err = (int)DO(netio_conn_write_owned(w.client.c, buf + 1000, 500, NULL, NULL));
        if (err == 0)
            err = (int)DO(netio_conn_write_file(w.client.c, fileno(file), 1500, 1500, NULL, NULL));
        if (err == 0) err = (int)DO(netio_conn_flush(w.client.c));
        if (err == 0) err = (int)DO(netio_conn_shutdown(w.client.c));
        if (err < 0 && netio_conn_alive(w.client.c)) DO(netio_conn_close(w.client.c));
        PUMP(w.client.closed);
        tell_end(&w.client, __LINE__);
        if (w.client.err == 0 && err == 0 && !lied()) MUST(w.client.got == 3000);
    }
    tell_end(&w.client, __LINE__);
    for (size_t i = 0; i < w.p.used; i++) PUMP(!w.served[i].opened || w.served[i].closed);

    // A later one must succeed, unless the fault still lies ahead.
    bool hit = f.hit;
    memset(&opts, 0, sizeof opts);
    w.second.seed = 1;
    int err = dial(&w.second, w.addr, &opts);
    if (err == 0) {
        err = (int)DO(netio_conn_write(w.second.c, buf, 10));
        PUMP(w.second.got == 10 || w.second.closed || w.second.ended);
        if (!w.second.closed) DO(netio_conn_close(w.second.c));
        PUMP(w.second.closed);
        tell_end(&w.second, __LINE__);
    }
    if (hit && !f.storm) MUST(err == 0 && w.second.err == 0);
out:
    armed = false;
    if (file) fclose(file);
    world_end();
}

// A dial that is refused first and then reaches the listener.
static void dial_story(void)
{
    netio_listener_opts listen;
    netio_dial_opts opts;
    const char *fallback[1] = {w.addr};
    memset(&listen, 0, sizeof listen);
    memset(&opts, 0, sizeof opts);
    world_begin();
    if (world_open(&end_plain, &listen) < 0) goto out;
    opts.socket.fallback = fallback;
    opts.socket.fallback_count = 1;
    if (dial(&w.client, "127.0.0.1:1", &opts) < 0) goto out;
    PUMP(w.client.opened || w.client.closed);
    if (!w.client.closed) DO(netio_conn_close(w.client.c));
    PUMP(w.client.closed);
    tell_end(&w.client, __LINE__);
out:
    armed = false;
    world_end();
}

// Limits and their refusal, an abort, a pause with bytes kept.
static void keep_most(end *e, int what, const void *data, size_t len)
{
    (void)data;
    if (what != DATA || len < 2) return;
    if (netio_conn_unread(e->c, len - 1) == 0) e->got -= len - 1;
    netio_conn_pause(e->c);
}

static void refusal_story(void)
{
    netio_listener_opts listen;
    netio_dial_opts opts;
    memset(&listen, 0, sizeof listen);
    memset(&opts, 0, sizeof opts);
    world_begin();
    listen.conn_max = 1;
    listen.conn_max_per_host = 1;
    listen.refusal = "full";
    listen.conn.close_timeout_ms = 100;
    w.p.like.on = keep_most;
    if (world_open(&end_plain, &listen) < 0) goto out;
    if (dial(&w.client, w.addr, &opts) < 0) goto out;
    if (DO(netio_conn_write(w.client.c, "12345", 5)) < 0) goto out;
    PUMP(w.client.closed || w.client.ended || (w.p.used == 1 && w.served[0].got > 0));
    if (w.client.closed || w.client.ended) goto over;
    if (dial(&w.second, w.addr, &opts) < 0) goto over;
    PUMP(w.second.ended || w.second.closed || w.p.used == 2); // if the first one is gone
    if (!w.second.closed) {
        DO(netio_conn_close(w.second.c));
        PUMP(w.second.closed);
    }
    tell_end(&w.second, __LINE__);
    if (!w.served[0].closed) {
        DO(netio_conn_resume(w.served[0].c));
        PUMP(w.served[0].got >= 2 || w.served[0].closed);
    }
over:
    tell_end(&w.client, __LINE__);
    if (w.p.used && w.served[0].opened && !w.served[0].closed) {
        DO(netio_conn_abort(w.served[0].c));
        PUMP(w.served[0].closed && (w.client.closed || w.client.ended));
        w.served[0].err = w.client.err = 0; // as it was meant
    }
out:
    armed = false;
    world_end();
}

// Two connections joined: splice, or a copy.
static void relay_story(void)
{
    static char buf[3000];
    netio_listener_opts listen;
    netio_dial_opts opts;
    memset(&listen, 0, sizeof listen);
    memset(&opts, 0, sizeof opts);
    world_begin();
    listen.conn.close_timeout_ms = 100;
    if (world_open(&end_all, &listen) < 0) goto out;
    if (dial(&w.client, w.addr, &opts) < 0) goto out;
    PUMP(w.client.closed || w.client.ended || (w.client.opened && w.p.used == 1));
    if (w.client.closed || w.client.ended) goto over;
    if (dial(&w.second, w.addr, &opts) < 0) goto out;
    PUMP(w.second.closed || w.second.ended || (w.second.opened && w.p.used == 2));
    if (w.p.used < 2 || w.client.closed || w.second.closed) goto over;
    TRY(netio_conn_relay(w.served[0].c, w.served[1].c));
    stream_fill(buf, sizeof buf, 2, 0);
    w.second.seed = 2;
    TRY(netio_conn_write(w.client.c, buf, sizeof buf));
    TRY(netio_conn_shutdown(w.client.c));
    PUMP(w.second.ended || w.second.closed);
    if (w.second.ended && !w.second.closed) {
        if (!lied()) MUST(w.second.got == 3000);
        TRY(netio_conn_shutdown(w.second.c));
    }
    PUMP(w.second.closed && (w.client.closed || w.client.ended));
over:
    tell_end(&w.client, __LINE__);
    tell_end(&w.second, __LINE__);
out:
    armed = false;
    world_end();
}

static void adopt_story(void)
{
    netio_socket s[2] = {NETIO_INVALID_SOCKET, NETIO_INVALID_SOCKET}, back = NETIO_INVALID_SOCKET;
    netio_conn_opts opts;
    char kept[8];
    ptrdiff_t n;
    memset(&opts, 0, sizeof opts);
    world_begin();
    TRY(test_loop_create(&w.loop, NULL));
    TRY(netio_pair(s, NETIO_STREAM));
    opts.user = &w.client;
    opts.unread = "early";
    opts.unread_len = 5;
    if (DO(netio_conn_adopt(&w.client.c, w.loop, s[0], &end_all, &opts)) < 0) {
        memset(&w.client.c, 0, sizeof w.client.c); // still ours
        goto out;
    }
    s[0] = NETIO_INVALID_SOCKET;
    PUMP(w.client.got == 5 || w.client.closed);
    if (w.client.closed) goto over;
    TRY(n = netio_conn_detach(w.client.c, &back, kept, sizeof kept));
    PUMP(w.client.closed);
over:
    tell_end(&w.client, __LINE__);
out:
    armed = false;
    for (int i = 0; i < 2; i++)
        if (s[i] != NETIO_INVALID_SOCKET) __real_close(s[i]);
    if (back != NETIO_INVALID_SOCKET) __real_close(back);
    world_end();
}

// --- a filter whose own memory is not netio's ---------------------------------------------------

static int double_received(netio_filter_io *io, const void *data, size_t len)
{
    return netio_filter_deliver(io, data, len);
}
static int double_written(netio_filter_io *io, const netio_buf *bufs, size_t count)
{
    int err = 0;
    for (size_t i = 0; err == 0 && i < count; i++)
        err = netio_filter_emit(io, bufs[i].data, bufs[i].len);
    return err;
}
static const netio_filter_ops double_ops = {
    .name = "copy", .received = double_received, .written = double_written};

static void filter_story(void)
{
    static char buf[3000];
    netio_listener_opts listen;
    netio_dial_opts opts;
    FILE *file = fopen(file_path, "rb");
    memset(&listen, 0, sizeof listen);
    memset(&opts, 0, sizeof opts);
    world_begin();
    stream_fill(buf, sizeof buf, 1, 0);
    w.p.like.echo = true;
    w.p.like.on = abort_if_failed;
    listen.conn.close_timeout_ms = 100;
    listen.conn.filter.ops = opts.conn.filter.ops = &double_ops;
    if (world_open(&end_plain, &listen) < 0) goto out;
    w.client.seed = 1;
    if (dial(&w.client, w.addr, &opts) < 0) goto out;
    int err = (int)DO(netio_conn_write(w.client.c, buf, 1500));
    if (err == 0)
        err = (int)DO(netio_conn_write_file(w.client.c, fileno(file), 1500, 1500, NULL, NULL));
    if (err == 0) err = (int)DO(netio_conn_add_filter(w.client.c, opts.conn.filter));
    if (err == 0) err = (int)DO(netio_conn_shutdown(w.client.c));
    if (err < 0 && netio_conn_alive(w.client.c)) DO(netio_conn_close(w.client.c));
    PUMP(w.client.closed);
    tell_end(&w.client, __LINE__);
    if (w.client.err == 0 && err == 0 && !lied()) MUST(w.client.got == 3000);
out:
    armed = false;
    if (file) fclose(file);
    world_end();
}

//================================================================================================
// The tests
//================================================================================================

// The n-th allocation fails, once. Most of them show; what does not show was done without.
static void every_allocation_here(story run)
{
    long n = 1, shown = 0;
    for (;; n++) {
        long before = test_allocs();
        test_alloc_fail_at(n);
        if (getenv("NETIO_TEST_VERBOSE")) printf("    allocation %ld\n", n);
        play(run, 0, 0, 0);
        test_alloc_fail_at(0);
        if (test_allocs() - before < n) break;
        shown += told.err != 0;
        CHECK(n < 300);
    }
    printf("    %ld allocations, %ld shown\n", n - 1, shown);
    OUGHT(told.err == 0);
    CHECK(n > 1);
}

static void sockets_only(void)
{
    if (test_in_memory()) SKIP("there are no system calls in memory");
}

TEST(conn_faults, calls_of_an_echo)
{
    sockets_only();
    every_call(echo_story);
}
TEST(conn_faults, calls_of_a_dial)
{
    sockets_only();
    every_call(dial_story);
}
TEST(conn_faults, calls_of_a_refusal)
{
    sockets_only();
    every_call(refusal_story);
}
TEST(conn_faults, calls_of_a_relay)
{
    sockets_only();
    every_call(relay_story);
}
TEST(conn_faults, calls_of_adopt_and_detach)
{
    sockets_only();
    every_call(adopt_story);
}
TEST(conn_faults, calls_under_a_filter)
{
    sockets_only();
    every_call(filter_story);
}

TEST(conn_faults, allocations_of_an_echo) { every_allocation_here(echo_story); }
TEST(conn_faults, allocations_of_a_dial) { every_allocation_here(dial_story); }
TEST(conn_faults, allocations_of_a_refusal) { every_allocation_here(refusal_story); }
TEST(conn_faults, allocations_of_a_relay) { every_allocation_here(relay_story); }
TEST(conn_faults, allocations_under_a_filter) { every_allocation_here(filter_story); }
TEST(conn_faults, allocations_of_adopt_and_detach)
{
    sockets_only();
    every_allocation_here(adopt_story);
}

// --- how many calls -----------------------------------------------------------------------------

// Situation (a): while descriptors are short the listener asks again with growing pauses, and then
// takes those that waited.
TEST(conn_faults, few_calls_of_accept_without_descriptors)
{
    enum { CLIENTS = 4 };
    netio_listener_opts listen;
    netio_socket s[CLIENTS];
    netio_addr a;
    sockets_only();
    memset(&listen, 0, sizeof listen);
    memset(&f, 0, sizeof f);
    memset(&told, 0, sizeof told);
    world_begin();
    CHECK_OK(world_open(&end_plain, &listen));
    CHECK_OK(netio_addr_parse(&a, w.addr, strlen(w.addr)));
    armed = false;
    for (int i = 0; i < CLIENTS; i++) {
        int err = netio_connect_start(&s[i], &a, NULL);
        CHECK(err == 0 || err == NETIO_EINPROGRESS);
    }
    memset(&f, 0, sizeof f);
    f.storm = NO_ACCEPT;
    armed = true;
    test_run_for(w.loop, 700);
    armed = false;
    CHECK_BETWEEN(4, 9, f.count[C_ACCEPT]); // at 0, 10, 30, 70, 150, 310, 630 ms
    CHECK(f.seen < 60);
    f.storm = 0;
    RUN_UNTIL(w.loop, w.p.used == CLIENTS);
    for (int i = 0; i < CLIENTS; i++) CHECK_OK(netio_close(&s[i]));
    world_end();
}

// A message costs one recv, one send and its share of the waiting; poll and select ask besides
// whether a descriptor that is ready is still the one that was registered.
static void answer(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what == DATA && e->got < 100) CHECK_OK(CALL(netio_conn_write(e->c, "?", 1)));
}

TEST(conn_faults, few_calls_for_a_message)
{
    enum { CLIENTS = 20 };
    static end client[CLIENTS], served[CLIENTS];
    netio_listener_opts listen;
    netio_dial_opts opts;
    long messages = 2 * 99 * CLIENTS;
    sockets_only();
    memset(&listen, 0, sizeof listen);
    memset(&opts, 0, sizeof opts);
    memset(client, 0, sizeof client);
    memset(&f, 0, sizeof f);
    memset(&told, 0, sizeof told);
    world_begin();
    w.p.ends = served;
    w.p.cap = CLIENTS;
    w.p.like.echo = true;
    CHECK_OK(world_open(&end_plain, &listen));
    for (int i = 0; i < CLIENTS; i++) {
        client[i].on = answer;
        CHECK_OK(dial(&client[i], w.addr, &opts));
        armed = false;
        CHECK_OK(netio_conn_write(client[i].c, "?", 1));
        RUN_UNTIL(w.loop, client[i].opened && w.p.used == (size_t)i + 1 && client[i].got == 1);
        CHECK_OK(netio_conn_pause(client[i].c));
    }
    memset(&f, 0, sizeof f);
    for (int i = 0; i < CLIENTS; i++) CHECK_OK(netio_conn_resume(client[i].c));
    armed = true;
    for (int i = 0; i < CLIENTS; i++) RUN_UNTIL(w.loop, client[i].got == 100);
    armed = false;
    printf("    %ld calls for %ld messages\n", f.seen, messages);
    CHECK((f.seen - f.count[C_FSTAT]) * 10 <= messages * 23);
    CHECK(f.count[C_FSTAT] * 10 <= messages * 11);
    world_end();
}

// clang-format off
static const test_case cases[] = {
    T(conn_faults, calls_of_an_echo),
    T(conn_faults, calls_of_a_dial),
    T(conn_faults, calls_of_a_refusal),
    T(conn_faults, calls_of_a_relay),
    T(conn_faults, calls_of_adopt_and_detach),
    T(conn_faults, calls_under_a_filter),
    T(conn_faults, allocations_of_an_echo),
    T(conn_faults, allocations_of_a_dial),
    T(conn_faults, allocations_of_a_refusal),
    T(conn_faults, allocations_of_a_relay),
    T(conn_faults, allocations_under_a_filter),
    T(conn_faults, allocations_of_adopt_and_detach),
    T(conn_faults, few_calls_of_accept_without_descriptors),
    T(conn_faults, few_calls_for_a_message),
};
// clang-format on

int main(int argc, char **argv)
{
    static char buf[3000];
    snprintf(file_path, sizeof file_path, "%s", test_path("faults"));
    FILE *file = fopen(file_path, "wb");
    stream_fill(buf, sizeof buf, 1, 0);
    if (!file || fwrite(buf, 1, sizeof buf, file) != sizeof buf || fclose(file) != 0) return 1;
    return test_main("conn_faults", cases, sizeof cases / sizeof cases[0], argc, argv);
}
