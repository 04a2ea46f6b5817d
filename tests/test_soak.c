// BACKENDS: all memory
//
// Many connections: opened and closed in waves until nothing may be left of them, a thousand at
// once, and what an idle one costs. --soak (or NETIO_TEST_SOAK) opens 100,000 instead of a few
// thousand.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "engine.h"

#ifndef _WIN32
#include <sys/resource.h>
#endif

//================================================================================================
// Waves
//================================================================================================

enum { WAVE = 60 };

typedef struct visitor { // user of either end
    int opened, closed;
    uint64_t got;
    int plan; // how this one ends
} visitor;

static struct {
    netio_loop *loop;
    char addr[NETIO_ADDR_TEXT];
    visitor out[WAVE];
    long dialed, dial_closed, served, served_closed, wrong;
    uint32_t random;
} soak;

static const unsigned char words[] = "the quick brown fox jumps over the lazy dog";

static void out_open(netio_conn c)
{
    visitor *v = (visitor *)netio_conn_user(c);
    v->opened++;
    if (v->plan % 16 == 1) {
        netio_conn_abort(c);
        return;
    }
    if (netio_conn_write(c, words, sizeof words) < 0) soak.wrong++;
    if (v->plan % 16 == 2) netio_conn_close(c);
    if (v->plan % 16 == 3) netio_conn_shutdown(c);
}

static void out_data(netio_conn c, const void *data, size_t len)
{
    visitor *v = (visitor *)netio_conn_user(c);
    for (size_t i = 0; i < len; i++)
        if (((const unsigned char *)data)[i] != words[(v->got + i) % sizeof words]) soak.wrong++;
    v->got += len;
    if (v->got < sizeof words || v->plan % 16 == 3) return;
    if (v->plan % 16 == 4) netio_conn_abort(c);
    else netio_conn_close(c);
}

static void out_close(netio_conn c, int err)
{
    visitor *v = (visitor *)netio_conn_user(c);
    (void)err;
    v->closed++;
    soak.dial_closed++;
    if (v->closed != 1) soak.wrong++;
    if (err == 0 && v->plan % 16 > 4 && v->got != sizeof words) soak.wrong++;
}

static const netio_handler out_handler = {
    .on_open = out_open, .on_data = out_data, .on_close = out_close};

static void in_open(netio_conn c)
{
    soak.served++;
    if (soak.served % 50 == 0) netio_conn_set_timeout(c, NETIO_TIMEOUT_IDLE, 5000);
}

static void in_data(netio_conn c, const void *data, size_t len)
{
    if (soak.served % 7 == 0) netio_conn_unread(c, len / 2); // the cold block comes and goes
    if (netio_conn_write(c, data, soak.served % 7 == 0 ? len - len / 2 : len) < 0) soak.wrong++;
    if (soak.served % 7 == 0 && netio_conn_pause(c) == 0) netio_conn_resume(c);
}

static void in_close(netio_conn c, int err)
{
    (void)c, (void)err;
    soak.served_closed++;
}

static const netio_handler in_handler = {
    .on_open = in_open, .on_data = in_data, .on_close = in_close};

// Each on a connection of its own; at most one wave at a time.
static void wave(int count)
{
    for (int i = 0; i < count; i++) {
        netio_dial_opts opts;
        visitor *v = &soak.out[i];
        memset(&opts, 0, sizeof opts);
        memset(v, 0, sizeof *v);
        v->plan = (int)(test_random(&soak.random) >> 4 & 255);
        opts.conn.user = v;
        CHECK_OK(netio_conn_dial(NULL, soak.loop, soak.addr, &out_handler, &opts));
        soak.dialed++;
    }
    RUN_UNTIL(soak.loop, soak.dial_closed == soak.dialed);
}

static void soak_open(void)
{
    netio_addr a;
    netio_listener l;
    memset(&soak, 0, sizeof soak);
    soak.random = 5;
    CHECK_OK(test_loop_create(&soak.loop, NULL));
    CHECK_OK(netio_listener_open(&l, soak.loop, test_loop_addr(), &in_handler, NULL));
    CHECK_OK(netio_listener_addr(l, &a));
    CHECK(netio_addr_format(&a, soak.addr, sizeof soak.addr) > 0);
}

static long soak_total(void)
{
    if (test_soak()) return 100000;
    if (test_under("wine")) return 600;
    return test_under("valgrind") || test_under("qemu") ? 300 : 5000;
}

TEST(soak, connections_leave_nothing_behind)
{
    long total = soak_total(), blocks = 0;
    long long bytes = 0;
    int descriptors = 0;
    netio_stats s;
    soak_open();
    while (soak.dialed < total) {
        wave(WAVE);
        if (blocks || soak.dialed < total / 2) continue;
        RUN_UNTIL(soak.loop, (netio_loop_stats(soak.loop, &s), s.active == 0));
        blocks = test_blocks(); // warm: nothing more may be needed
        bytes = test_bytes();
        descriptors = test_descriptors();
    }
    RUN_UNTIL(soak.loop, (netio_loop_stats(soak.loop, &s), s.active == 0));
    CHECK_EQ(0, soak.wrong);
    CHECK_EQ(soak.served, soak.served_closed);
    CHECK_EQ(soak.dialed + soak.served, s.opened + s.refused);
    CHECK_EQ(descriptors, test_descriptors());
    CHECK_BETWEEN(0, blocks + 8, test_blocks()); // a wave may overlap more than those before
    CHECK_BETWEEN(-1, bytes + 65536, test_bytes());
    test_loop_destroy(&soak.loop);
}

//================================================================================================
// A thousand at once
//================================================================================================

enum { MANY = 1000 };

static struct {
    netio_conn c[MANY];
    int opened, served, closed, data;
} many;

static void many_open(netio_conn c)
{
    if (netio_conn_user(c)) many.opened++;
    else many.served++;
}
static void many_data(netio_conn c, const void *data, size_t len)
{
    (void)data;
    if (netio_conn_user(c)) many.data += (int)len;
    else netio_conn_write(c, data, len);
}
static void many_close(netio_conn c, int err)
{
    (void)c, (void)err;
    many.closed++;
}
static const netio_handler many_handler = {
    .on_open = many_open, .on_data = many_data, .on_close = many_close};

// Room for so many descriptors, or a skip.
static void need_descriptors(unsigned count)
{
#ifndef _WIN32
    struct rlimit limit;
    if (test_in_memory()) return;
    CHECK_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
    if (limit.rlim_cur >= count) return;
    limit.rlim_cur = count < limit.rlim_max ? count : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < count)
        SKIP("only %lu descriptors", (unsigned long)limit.rlim_cur);
#else
    (void)count;
#endif
}

static void many_listen(void)
{
    netio_listener l;
    netio_addr a;
    memset(&many, 0, sizeof many);
    CHECK_OK(netio_listener_open(&l, soak.loop, test_loop_addr(), &many_handler, NULL));
    CHECK_OK(netio_listener_addr(l, &a));
    CHECK(netio_addr_format(&a, soak.addr, sizeof soak.addr) > 0);
}

static int many_count(void)
{
    return test_under("wine") || test_under("valgrind") || test_under("qemu") ? 200 : MANY;
}

TEST(soak, a_thousand_at_once)
{
    int n = many_count();
    need_descriptors(2 * MANY + 100);
    soak_open();
    many_listen();
    for (int i = 0; i < n; i++) {
        netio_dial_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.conn.user = &many;
        CHECK_OK(netio_conn_dial(&many.c[i], soak.loop, soak.addr, &many_handler, &opts));
        if (i % 50 == 49) RUN_UNTIL(soak.loop, many.opened == i + 1 && many.served == i + 1);
    }
    RUN_UNTIL(soak.loop, many.opened == n && many.served == n);
    for (int round = 1; round <= 2; round++) {
        for (int i = 0; i < n; i++) CHECK_OK(netio_conn_write(many.c[i], "0123456789", 10));
        RUN_UNTIL(soak.loop, many.data == 10 * n * round);
    }
    for (int i = 0; i < n; i++) CHECK_OK(netio_conn_close(many.c[i]));
    RUN_UNTIL(soak.loop, many.closed == 2 * n);
    test_loop_destroy(&soak.loop);
}

// Accepted connections that have echoed and are silent now. The clients are sockets without a loop.
TEST(soak, idle_connections_cost_little)
{
    static netio_socket client[MANY];
    int n = many_count();
    long long before;
    netio_addr a;
    char buf[10];
    if (test_in_memory()) SKIP("what the network in memory needs is not the connection's");
    need_descriptors(2 * MANY + 100);
    soak_open();
    wave(WAVE); // the loop's own memory is there
    before = test_bytes();
    many_listen();
    CHECK_OK(netio_addr_parse(&a, soak.addr, strlen(soak.addr)));
    for (int i = 0; i < n; i++) {
        int err = netio_connect_start(&client[i], &a, NULL);
        CHECK(err == 0 || err == NETIO_EINPROGRESS);
        RUN_UNTIL(soak.loop, many.served == i + 1);
        CHECK_OK(netio_connect_finish(client[i], 5000));
        CHECK_OK(netio_send_all(client[i], "0123456789", 10, NULL, 5000));
        for (ptrdiff_t got = 0; got <= 0;) {
            CHECK(netio_loop_run_once(soak.loop, 10) >= 0);
            got = netio_recv(client[i], buf, 10, 0);
            CHECK(got > 0 || got == NETIO_EAGAIN);
        }
    }
    if (test_bytes() >= 0) {
        long long each = (test_bytes() - before) / n;
        printf("    %lld bytes of heap for each idle connection\n", each);
        // With the poller's entry; AFD has a request for each.
        if (!test_under("sanitizer") && !test_under("wine")) CHECK_BETWEEN(1, 220, each);
    }
    for (int i = 0; i < n; i++) CHECK_OK(netio_close(&client[i]));
    RUN_UNTIL(soak.loop, many.closed == n);
    test_loop_destroy(&soak.loop);
}

// One that floods does not keep the others waiting: each turn it gets its budget and no more.
static struct {
    netio_conn flood, quiet;
    uint64_t flooded, most;
    int answers;
    bool over;
} fair;

static char flood_bytes[65536];

static void flood_on(netio_conn c)
{
    while (!fair.over && netio_conn_write(c, flood_bytes, sizeof flood_bytes) == 0) continue;
}
static void fair_data(netio_conn c, const void *data, size_t len)
{
    if (netio_conn_user(c) == &fair) { // the quiet one's answer
        fair.answers++;
        if (fair.flooded > fair.most) fair.most = fair.flooded;
        fair.flooded = 0;
        if (fair.answers < 50) netio_conn_write(c, "?", 1);
        else fair.over = true;
        return;
    }
    if (len == 1) netio_conn_write(c, data, len);
    else fair.flooded += len;
}
static const netio_handler flood_handler = {
    .on_open = flood_on, .on_data = fair_data, .on_drain = flood_on};
static const netio_handler quiet_handler = {.on_data = fair_data};

TEST(soak, one_that_floods_leaves_time_for_others)
{
    netio_loop *loop;
    netio_loop_opts opts;
    netio_listener l;
    netio_addr a;
    char addr[NETIO_ADDR_TEXT];
    netio_dial_opts dial;
    memset(&fair, 0, sizeof fair);
    memset(&opts, 0, sizeof opts);
    memset(&dial, 0, sizeof dial);
    opts.recv_buffer = 65536;
    opts.turn_budget = 65536;
    CHECK_OK(test_loop_create(&loop, &opts));
    CHECK_OK(netio_listener_open(&l, loop, test_loop_addr(), &quiet_handler, NULL));
    CHECK_OK(netio_listener_addr(l, &a));
    CHECK(netio_addr_format(&a, addr, sizeof addr) > 0);
    CHECK_OK(netio_conn_dial(&fair.flood, loop, addr, &flood_handler, &dial));
    dial.conn.user = &fair;
    CHECK_OK(netio_conn_dial(&fair.quiet, loop, addr, &quiet_handler, &dial));
    CHECK_OK(netio_conn_write(fair.quiet, "?", 1));
    RUN_UNTIL(loop, fair.over);
    if (!test_in_memory()) CHECK_BETWEEN(0, 8 * 65536, fair.most); // an answer takes a few turns
    test_loop_destroy(&loop);
}

// A server without work sleeps.
TEST(soak, idle_loop_sleeps)
{
    duo d;
    netio_stats before, after;
    uint64_t cpu;
    if (test_in_memory()) SKIP("its time is virtual");
    duo_init(&d);
    duo_open(&d, &end_all, &end_all);
    test_run_for(d.loop, 10);
    netio_loop_stats(d.loop, &before);
    cpu = test_cpu_ms();
    uint64_t until = test_ms() + 700;
    while (test_ms() < until) CHECK(netio_loop_run_once(d.loop, 700) >= 0);
    netio_loop_stats(d.loop, &after);
    CHECK_BETWEEN(1, 4, after.turns - before.turns);
    if (!test_under("valgrind") && !test_under("qemu")) CHECK(test_cpu_ms() - cpu < 60);
    duo_close(&d);
}

//================================================================================================

// clang-format off
TEST_MAIN("soak",
    T(soak, connections_leave_nothing_behind),
    T(soak, a_thousand_at_once),
    T(soak, idle_connections_cost_little),
    T(soak, one_that_floods_leaves_time_for_others),
    T(soak, idle_loop_sleeps))
