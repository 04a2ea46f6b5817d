// BACKENDS: all memory
//
// Dialing: what refuses, hangs, is cancelled or raced, within one deadline; what is told of each
// attempt; what can be asked for.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "engine.h"

#ifndef NETIO_NO_THREADS
enum { HAS_THREADS = 1 };
#else
enum { HAS_THREADS = 0 };
#endif

//================================================================================================
// Helpers
//================================================================================================

typedef struct dialed {
    netio_loop *loop;
    netio_dial_opts opts;
    end e;
    uint64_t start;
} dialed;

// A duo whose listener gives each connection an end of its own; the first is accepted.
static pool two;
static end two_served[2];

static void two_open(duo *d)
{
    memset(&two, 0, sizeof two);
    two.kind = KIND_POOL;
    two.ends = two_served;
    two.cap = 2;
    duo_init(d);
    d->listen.conn.user = &two;
    duo_open(d, &end_all, &end_all);
    RUN_UNTIL(d->loop, two.used == 1);
}

static void dialed_open(dialed *d)
{
    memset(d, 0, sizeof *d);
    CHECK_OK(test_loop_create(&d->loop, NULL));
}

static void dialed_start(dialed *d, const char *address)
{
    d->opts.conn.user = &d->e;
    d->start = netio_loop_now_ms(d->loop);
    CHECK_OK(CALL(netio_conn_dial(&d->e.c, d->loop, address, &end_all, &d->opts)));
    CHECK_STR("", d->e.log);
}

static uint64_t dialed_ms(const dialed *d) { return netio_loop_now_ms(d->loop) - d->start; }

static void dialed_close(dialed *d)
{
    test_loop_destroy(&d->loop);
    CHECK_EQ(1, d->e.closed);
    end_check(&d->e);
}

// An address that never answers. Over sockets: a listener whose queue is full, which on Linux makes
// the kernel drop what comes then. In memory: a host behind a link that is cut.
typedef struct hole {
    netio_socket listener, fill[32];
    int count;
    char text[NETIO_ADDR_TEXT];
} hole;

static void hole_close(hole *h)
{
    while (h->count > 0) netio_close(&h->fill[--h->count]);
    if (!test_in_memory()) netio_close(&h->listener);
}

static void hole_open(hole *h)
{
    netio_socket_opts opts;
    netio_addr addr;
    memset(h, 0, sizeof *h);
    memset(&opts, 0, sizeof opts);
    if (test_in_memory()) {
        netio_link link = {0};
        link.cut = true;
        CHECK_OK(netio_network_link(test_network(), "10.66.66.66", NULL, &link));
        snprintf(h->text, sizeof h->text, "10.66.66.66:80");
        return;
    }
    opts.backlog = 1;
    CHECK_OK(netio_listen(&h->listener, "127.0.0.1:0", &opts));
    CHECK_OK(netio_local_addr(h->listener, &addr));
    CHECK(netio_addr_format(&addr, h->text, sizeof h->text) > 0);
    while (h->count < 32) {
        netio_socket *s = &h->fill[h->count];
        int err = netio_connect_start(s, &addr, NULL);
        if (err == 0 || err == NETIO_EINPROGRESS) h->count++;
        if (err == NETIO_EINPROGRESS) err = netio_connect_finish(*s, 60);
        if (err == NETIO_ETIMEDOUT) return;
        if (err < 0) break;
    }
    hole_close(h);
    SKIP("a full backlog does not swallow connects here");
}

//================================================================================================
// One address
//================================================================================================

TEST(dial, reaches_a_listener)
{
    duo d;
    duo_init(&d);
    d.b.echo = true;
    duo_start(&d, &end_all, &end_plain);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "at once", 7))); // usable before it is connected
    CHECK_EQ(7, netio_conn_pending(d.a.c));
    RUN_UNTIL(d.loop, d.a.got == 7);
    CHECK_STR("od", d.a.log);
    duo_close(&d);
}

TEST(dial, refused)
{
    dialed d;
    char addr[NETIO_ADDR_TEXT], text[NETIO_ADDR_TEXT];
    netio_error tried[4];
    netio_stats s;
    dialed_open(&d);
    closed_port(d.loop, addr);
    dialed_start(&d, addr);
    RUN_UNTIL(d.loop, d.e.closed);
    CHECK_STR("c", d.e.log);
    CHECK_ERR(NETIO_ECONNREFUSED, d.e.err);
    CHECK_EQ(NETIO_STAGE_CONNECT, d.e.error.stage);
    CHECK_EQ(0, d.e.error.timeout);
    CHECK(netio_addr_format(&d.e.error.addr, text, sizeof text) > 0);
    CHECK_STR(addr, text);
    CHECK(strstr(d.e.error.text, "refused") != NULL);
    if (!test_in_memory()) CHECK(d.e.error.os_code != 0);
    CHECK_EQ(0, netio_conn_attempts(d.e.c, tried, 4)); // it is stale by now
    test_run_for(d.loop, 1);
    netio_loop_stats(d.loop, &s);
    CHECK_EQ(0, s.active);
    CHECK_EQ(0, s.opened);
    dialed_close(&d);
}

TEST(dial, times_out)
{
    static const int limits[] = {1, 60, 200};
    hole h;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        dialed d;
        hole_open(&h); // in memory it goes with the last loop
        dialed_open(&d);
        d.opts.timeout_ms = limits[i];
        dialed_start(&d, h.text);
        CHECK_OK(CALL(netio_conn_write(d.e.c, "never sent", 10)));
        RUN_UNTIL(d.loop, d.e.closed);
        CHECK_BETWEEN(limits[i] - 1, limits[i] + 3000, dialed_ms(&d));
        CHECK_STR("c", d.e.log);
        CHECK_ERR(NETIO_ETIMEDOUT, d.e.err);
        CHECK_EQ(NETIO_TIMEOUT_CONNECT, d.e.error.timeout);
        CHECK_EQ(NETIO_STAGE_CONNECT, d.e.error.stage);
        dialed_close(&d);
        hole_close(&h);
    }
}

// Cancelled before it is connected: by close, by close of something written, by abort, by the end
// of the loop.
TEST(dial, can_be_cancelled)
{
    static const int want[] = {NETIO_ECANCELED, NETIO_ETIMEDOUT, NETIO_ECONNABORTED,
                               NETIO_ECANCELED};
    hole h;
    for (int how = 0; how < 4; how++) {
        for (int late = 0; late < 2; late++) { // in the first turn, and while it waits
            dialed d;
            hole_open(&h);
            dialed_open(&d);
            if (how == 1) d.opts.timeout_ms = 50;
            dialed_start(&d, h.text);
            if (how == 1) CHECK_OK(CALL(netio_conn_write(d.e.c, "never sent", 10)));
            if (late) test_run_for(d.loop, 10);
            if (how < 2) CHECK_OK(CALL(netio_conn_close(d.e.c)));
            if (how == 2) CHECK_OK(CALL(netio_conn_abort(d.e.c)));
            if (how < 3) {
                CHECK(!netio_conn_alive(d.e.c) || how == 1);
                CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_abort(d.e.c)));
                CHECK_STR("", d.e.log);
                RUN_UNTIL(d.loop, d.e.closed);
                CHECK(dialed_ms(&d) < 5000);
            }
            dialed_close(&d);
            CHECK_STR("c", d.e.log);
            CHECK_ERR(want[how], d.e.err);
            hole_close(&h);
        }
    }
}

// What was written before close goes out, though the connection does not exist yet.
TEST(dial, closed_at_once_still_delivers)
{
    duo d;
    duo_init(&d);
    d.b.seed = d.a.out_seed = 61;
    d.a.out_len = 100000;
    duo_start(&d, &end_plain, &end_plain);
    end_pump(&d.a);
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(100000, d.b.got);
    CHECK_STR("c", d.a.log); // nobody waits for on_open any more
    CHECK_ERR(0, d.a.err);
    duo_close(&d);
}

TEST(dial, refuses_text_that_is_no_address)
{
    static const char *const bad[] = {
        "",         ":",       "127.0.0.1",      "127.0.0.1:",   "127.0.0.1:99999",
        "1.2.3:80", "[::1:80", "host:port:more", "127.0.0.1:80x"};
    netio_loop *loop;
    netio_dial_opts opts;
    netio_conn c;
    end e;
    memset(&opts, 0, sizeof opts);
    memset(&e, 0, sizeof e);
    opts.conn.user = &e;
    CHECK_OK(test_loop_create(&loop, NULL));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int err = CALL(netio_conn_dial(&c, loop, bad[i], &end_all, &opts));
        if (err != NETIO_EINVAL && err != NETIO_ENOENT) printf("    \"%s\"\n", bad[i]);
        CHECK(err == NETIO_EINVAL || err == NETIO_ENOENT);
    }
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_dial(&c, loop, NULL, &end_all, &opts)));
    opts.socket.stagger_ms = -1;
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_dial(&c, loop, "127.0.0.1:80", &end_all, &opts)));
    test_run_for(loop, 5);
    test_loop_destroy(&loop);
    CHECK_STR("", e.log); // there was no connection
}

TEST(dial, handle_may_be_unwanted)
{
    duo d;
    end e;
    netio_dial_opts opts;
    memset(&e, 0, sizeof e);
    memset(&opts, 0, sizeof opts);
    opts.conn.user = &e;
    two_open(&d);
    CHECK_OK(CALL(netio_conn_dial(NULL, d.loop, d.addr, &end_all, &opts)));
    RUN_UNTIL(d.loop, e.opened && two.used == 2);
    duo_close(&d);
}

TEST(dial, tells_its_host)
{
    duo d;
    duo_init(&d);
    d.dial.server_name = "another.example";
    duo_open(&d, &end_all, &end_all);
    CHECK_STR("another.example", netio_conn_server_name(d.a.c));
    CHECK_STR("", netio_conn_server_name(d.b.c));
    duo_close(&d);
}

TEST(dial, comes_from_the_address_asked_for)
{
    duo d;
    netio_addr local;
    char text[NETIO_ADDR_TEXT];
    if (test_in_memory()) SKIP("a host has one address in memory");
    duo_init(&d);
    d.dial.socket.local = "127.0.0.3:0";
    duo_start(&d, &end_all, &end_all);
    RUN_UNTIL(d.loop, (d.a.opened && d.b.opened) || d.a.closed);
    if (d.a.err == NETIO_EADDRNOTAVAIL) {
        test_loop_destroy(&d.loop);
        SKIP("127.0.0.3 is not this machine's");
    }
    CHECK_OK(netio_conn_peer(d.b.c, &local));
    CHECK(netio_addr_format_host(&local, text, sizeof text) > 0);
    CHECK_STR("127.0.0.3", text);
    duo_close(&d);
}

TEST(dial, over_ipv6)
{
    duo d;
    netio_addr a;
    netio_conn c = {NULL, 0};
    end e;
    netio_listener l;
    netio_listener_opts listen;
    netio_dial_opts opts;
    char text[NETIO_ADDR_TEXT];
    if (test_in_memory()) SKIP("the test's host is an IPv4 one");
    duo_init(&d);
    memset(&e, 0, sizeof e);
    memset(&listen, 0, sizeof listen);
    memset(&opts, 0, sizeof opts);
    CHECK_OK(test_loop_create(&d.loop, NULL));
    listen.conn.user = &d.b;
    int err = netio_listener_open(&l, d.loop, "[::1]:0", &end_plain, &listen);
    if (err < 0) {
        test_loop_destroy(&d.loop);
        SKIP("no IPv6 here");
    }
    CHECK_OK(netio_listener_addr(l, &a));
    CHECK(netio_addr_format(&a, text, sizeof text) > 0);
    d.b.echo = true;
    opts.conn.user = &e;
    CHECK_OK(CALL(netio_conn_dial(&c, d.loop, text, &end_all, &opts)));
    CHECK_STR("::1", netio_conn_server_name(c));
    CHECK_OK(CALL(netio_conn_write(c, "six", 3)));
    RUN_UNTIL(d.loop, e.got == 3);
    CHECK_OK(netio_conn_peer(d.b.c, &a));
    CHECK_EQ(NETIO_IPV6, netio_addr_family(&a));
    test_loop_destroy(&d.loop);
}

//================================================================================================
// Several addresses
//================================================================================================

TEST(dial, falls_back_to_the_next)
{
    duo d;
    char dead[2][NETIO_ADDR_TEXT];
    const char *fallback[2];
    end e;
    netio_dial_opts opts;
    memset(&e, 0, sizeof e);
    memset(&opts, 0, sizeof opts);
    two_open(&d);
    closed_port(d.loop, dead[0]);
    closed_port(d.loop, dead[1]);
    fallback[0] = dead[1];
    fallback[1] = d.addr;
    opts.conn.user = &e;
    opts.socket.fallback = fallback;
    opts.socket.fallback_count = 2;
    uint64_t start = netio_loop_now_ms(d.loop);
    CHECK_OK(CALL(netio_conn_dial(&e.c, d.loop, dead[0], &end_all, &opts)));
    fallback[0] = fallback[1] = NULL; // it was copied
    RUN_UNTIL(d.loop, e.opened && two.used == 2);
    if (!test_under("wine")) CHECK(netio_loop_now_ms(d.loop) - start < 3000); // no waiting for dead
    CHECK_EQ(0, netio_conn_attempts(e.c, NULL, 0));
    duo_close(&d);
    CHECK_ERR(NETIO_ECANCELED, e.err);
}

TEST(dial, races_past_one_that_hangs)
{
    duo d;
    hole h;
    const char *fallback[1];
    end e;
    netio_dial_opts opts;
    memset(&e, 0, sizeof e);
    memset(&opts, 0, sizeof opts);
    hole_open(&h);
    two_open(&d);
    int descriptors = test_descriptors();
    fallback[0] = d.addr;
    opts.conn.user = &e;
    opts.socket.fallback = fallback;
    opts.socket.fallback_count = 1;
    opts.socket.stagger_ms = 40;
    uint64_t start = netio_loop_now_ms(d.loop);
    CHECK_OK(CALL(netio_conn_dial(&e.c, d.loop, h.text, &end_all, &opts)));
    RUN_UNTIL(d.loop, e.opened && two.used == 2);
    CHECK_BETWEEN(39, 5000, netio_loop_now_ms(d.loop) - start); // after the head start
    test_run_for(d.loop, 5);
    if (descriptors && !test_in_memory())
        CHECK_EQ(descriptors + 2, test_descriptors()); // the loser is closed
    duo_close(&d);
    hole_close(&h);
}

static struct {
    netio_error list[8];
    size_t count, again;
} tried;

static void look_at_attempts(end *e, int what, const void *data, size_t len)
{
    netio_error one;
    (void)data, (void)len;
    if (what != CLOSED) return;
    tried.count = netio_conn_attempts(e->c, tried.list, 8);
    tried.again = netio_conn_attempts(e->c, &one, 1);
    CHECK(tried.again == 0 || one.err == tried.list[0].err);
}

TEST(dial, tells_of_every_attempt)
{
    char dead[3][NETIO_ADDR_TEXT], text[NETIO_ADDR_TEXT];
    const char *fallback[2];
    dialed d;
    hole h;
    hole_open(&h); // the last of them
    dialed_open(&d);
    closed_port(d.loop, dead[0]);
    do closed_port(d.loop, dead[1]);
    while (strcmp(dead[0], dead[1]) == 0);
    memcpy(dead[2], h.text, sizeof dead[2]);
    fallback[0] = dead[1];
    fallback[1] = dead[2];
    d.opts.socket.fallback = fallback;
    d.opts.socket.fallback_count = 2;
    d.opts.timeout_ms = test_under("wine") ? 8000 : 300; // Windows asks a closed port for 2 s
    d.e.on = look_at_attempts;
    memset(&tried, 0, sizeof tried);
    dialed_start(&d, dead[0]);
    RUN_UNTIL(d.loop, d.e.closed);
    CHECK_ERR(NETIO_ETIMEDOUT, d.e.err); // some timed out
    CHECK_EQ(3, tried.count);
    CHECK(tried.again <= 3 && tried.again >= 1);
    for (int i = 0; i < 3; i++) {
        CHECK(netio_addr_format(&tried.list[i].addr, text, sizeof text) > 0);
        CHECK_STR(dead[i], text);
        CHECK_ERR(i < 2 ? NETIO_ECONNREFUSED : NETIO_ETIMEDOUT, tried.list[i].err);
        CHECK_EQ(NETIO_STAGE_CONNECT, tried.list[i].stage);
        CHECK(tried.list[i].text[0] != 0);
        if (!test_in_memory() && i < 2) CHECK(tried.list[i].os_code != 0);
    }
    dialed_close(&d);
    hole_close(&h);
}

// If all refuse, that is the verdict, and it comes without waiting.
TEST(dial, all_refused_is_refused)
{
    char dead[3][NETIO_ADDR_TEXT];
    const char *fallback[2] = {dead[1], dead[2]};
    dialed d;
    dialed_open(&d);
    for (int i = 0; i < 3; i++) closed_port(d.loop, dead[i]);
    d.opts.socket.fallback = fallback;
    d.opts.socket.fallback_count = 2;
    d.opts.socket.stagger_ms = 15000;
    dialed_start(&d, dead[0]);
    RUN_UNTIL(d.loop, d.e.closed);
    CHECK_ERR(NETIO_ECONNREFUSED, d.e.err);
    CHECK(dialed_ms(&d) < 12000);
    dialed_close(&d);
}

//================================================================================================
// Names
//================================================================================================

// What the resolver hook answers; it runs on another thread and may outlive the dial.
static struct {
    netio_addr list[4];
    size_t count;
    ptrdiff_t err;
    int delay_ms;
    int asked, answered, gate; // shared with the resolver; it waits while `gate` is not 0
} names;

static ptrdiff_t answer(void *user, const char *host, uint16_t port, netio_addr *out, size_t cap)
{
    size_t n = names.count < cap ? names.count : cap;
    (void)user, (void)host;
    test_shared_add(&names.asked, 1);
    if (names.delay_ms) test_sleep_ms(names.delay_ms);
    while (test_shared_get(&names.gate)) test_sleep_ms(1);
    for (size_t i = 0; i < n; i++) {
        out[i] = names.list[i];
        if (netio_addr_port(&out[i]) == 0) netio_addr_set_port(&out[i], port);
    }
    test_shared_add(&names.answered, 1);
    return names.err ? names.err : (ptrdiff_t)n;
}

static void names_begin(dialed *d)
{
    memset(&names, 0, sizeof names);
    d->opts.socket.resolve.resolver = answer;
}

static void name_is(const char *address)
{
    CHECK_OK(netio_addr_parse(&names.list[names.count++], address, strlen(address)));
}

// The thread of a lookup may end a little after the answer: its memory, too.
static void wait_for_threads(long blocks)
{
    uint64_t until = test_ms() + 5000;
    while (test_blocks() != blocks && test_ms() < until) test_sleep_ms(1);
}

TEST(dial, by_name_takes_the_address_that_lives)
{
    duo d;
    dialed x;
    char dead[NETIO_ADDR_TEXT];
    if (test_in_memory() || !HAS_THREADS) SKIP("the resolver runs on a thread");
    long blocks = test_blocks();
    two_open(&d);
    memset(&x, 0, sizeof x);
    x.loop = d.loop;
    names_begin(&x);
    closed_port(d.loop, dead);
    name_is(dead);
    name_is(d.addr);
    dialed_start(&x, "two.example:80");
    CHECK_STR("two.example", netio_conn_server_name(x.e.c));
    RUN_UNTIL(d.loop, x.e.opened && two.used == 2);
    CHECK_EQ(1, test_shared_get(&names.asked));
    duo_close(&d);
    wait_for_threads(blocks);
}

// Situation (e): the name's first address is an IPv6 one where only IPv4 listens.
TEST(dial, by_name_with_a_dead_first_family)
{
    duo d;
    dialed x;
    if (test_in_memory() || !HAS_THREADS) SKIP("the resolver runs on a thread");
    long blocks = test_blocks();
    netio_addr a;
    char text[32];
    two_open(&d);
    memset(&x, 0, sizeof x);
    x.loop = d.loop;
    names_begin(&x);
    CHECK_OK(netio_addr_parse(&a, d.addr, strlen(d.addr)));
    snprintf(text, sizeof text, "[::1]:%u", netio_addr_port(&a));
    name_is(text);
    name_is(d.addr);
    dialed_start(&x, "localhost:80");
    RUN_UNTIL(d.loop, x.e.opened && two.used == 2);
    duo_close(&d);
    wait_for_threads(blocks);
}

TEST(dial, by_name_of_the_network)
{
    duo d;
    dialed x;
    netio_addr a;
    char text[64];
    if (!test_in_memory()) SKIP("names of the network in memory");
    two_open(&d);
    memset(&x, 0, sizeof x);
    x.loop = d.loop;
    CHECK_OK(netio_network_name(test_network(), "server.example", "127.0.0.1"));
    CHECK_OK(netio_addr_parse(&a, d.addr, strlen(d.addr)));
    snprintf(text, sizeof text, "server.example:%u", netio_addr_port(&a));
    dialed_start(&x, text);
    RUN_UNTIL(d.loop, x.e.opened && two.used == 2);
    CHECK_STR("server.example", netio_conn_server_name(x.e.c));
    duo_close(&d);
}

TEST(dial, by_name_that_does_not_exist)
{
    dialed d;
    long blocks = test_blocks();
    if (!test_in_memory() && !HAS_THREADS) SKIP("the resolver runs on a thread");
    dialed_open(&d);
    names_begin(&d);
    names.err = NETIO_EAI_NONAME;
    if (test_in_memory()) d.opts.socket.resolve.resolver = NULL;
    dialed_start(&d, "nowhere.example:80");
    RUN_UNTIL(d.loop, d.e.closed);
    CHECK_STR("c", d.e.log);
    CHECK_ERR(NETIO_EAI_NONAME, d.e.err);
    CHECK_EQ(NETIO_STAGE_RESOLVE, d.e.error.stage);
    dialed_close(&d);
    wait_for_threads(blocks);
}

// The deadline holds although the resolver does not answer, the loop goes on meanwhile, and what
// comes late is dropped.
static void tick(void *user) { ++*(int *)user; }

TEST(dial, deadline_covers_a_resolver_that_hangs)
{
    long blocks = test_blocks();
    if (test_in_memory() || !HAS_THREADS) SKIP("the resolver runs on a thread");
    for (int how = 0; how < 3; how++) { // it times out; is cancelled; ends with its loop
        dialed d;
        int ticks = 0;
        netio_timer t;
        dialed_open(&d);
        names_begin(&d);
        names.gate = 1; // nobody asks yet
        name_is("127.0.0.1:1");
        d.opts.timeout_ms = 100;
        CHECK_OK(netio_timer_every(&t, d.loop, 5, tick, &ticks));
        dialed_start(&d, "hangs.example:80");
        RUN_UNTIL(d.loop, test_shared_get(&names.asked) == 1);
        if (how == 1) CHECK_OK(CALL(netio_conn_abort(d.e.c)));
        if (how < 2) RUN_UNTIL(d.loop, d.e.closed);
        if (how == 0) {
            CHECK_BETWEEN(99, 5000, dialed_ms(&d));
            CHECK_ERR(NETIO_ETIMEDOUT, d.e.err);
            CHECK_EQ(NETIO_TIMEOUT_CONNECT, d.e.error.timeout);
            CHECK_EQ(NETIO_STAGE_RESOLVE, d.e.error.stage);
            CHECK(ticks > 2);
        }
        if (how == 1) CHECK_ERR(NETIO_ECONNABORTED, d.e.err);
        if (how < 2) {
            test_shared_add(&names.gate, -1);
            while (!test_shared_get(&names.answered)) test_sleep_ms(1);
            test_run_for(d.loop, 10); // nothing comes of it
        }
        dialed_close(&d);
        if (how == 2) test_shared_add(&names.gate, -1);
        while (!test_shared_get(&names.answered)) test_sleep_ms(1);
        wait_for_threads(blocks);
        CHECK_EQ(blocks, test_blocks());
    }
}

//================================================================================================
// Peer to peer, and Unix
//================================================================================================

// Two nodes dial each other: each has a connection in and one out.
TEST(dial, two_nodes_dial_each_other)
{
    netio_loop *loop;
    struct {
        netio_listener l;
        char addr[NETIO_ADDR_TEXT];
        end in, out;
    } node[2];
    netio_listener_opts listen;
    netio_dial_opts dial;
    netio_addr a;
    memset(node, 0, sizeof node);
    CHECK_OK(test_loop_create(&loop, NULL));
    for (int i = 0; i < 2; i++) {
        memset(&listen, 0, sizeof listen);
        listen.conn.user = &node[i].in;
        node[i].in.echo = true;
        CHECK_OK(netio_listener_open(&node[i].l, loop, test_loop_addr(), &end_plain, &listen));
        CHECK_OK(netio_listener_addr(node[i].l, &a));
        CHECK(netio_addr_format(&a, node[i].addr, sizeof node[i].addr) > 0);
    }
    for (int i = 0; i < 2; i++) {
        memset(&dial, 0, sizeof dial);
        dial.conn.user = &node[i].out;
        CHECK_OK(netio_conn_dial(&node[i].out.c, loop, node[1 - i].addr, &end_all, &dial));
        CHECK_OK(CALL(netio_conn_write(node[i].out.c, "hello", 5)));
    }
    RUN_UNTIL(loop, node[0].out.got == 5 && node[1].out.got == 5);
    test_loop_destroy(&loop);
    for (int i = 0; i < 2; i++) {
        end_check(&node[i].in);
        end_check(&node[i].out);
    }
}

TEST(dial, over_a_unix_socket)
{
    netio_loop *loop;
    netio_listener l;
    netio_listener_opts listen;
    netio_dial_opts dial;
    netio_addr a;
    char addr[NETIO_ADDR_TEXT];
    end in, out;
    if (test_in_memory()) SKIP("no Unix sockets in memory");
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    memset(&listen, 0, sizeof listen);
    memset(&dial, 0, sizeof dial);
    CHECK_OK(test_loop_create(&loop, NULL));
    snprintf(addr, sizeof addr, "unix:%s", test_path("dial.sock"));
    listen.conn.user = &in;
    in.echo = true;
    int err = netio_listener_open(&l, loop, addr, &end_plain, &listen);
    if (err == NETIO_ENOTSUP || err == NETIO_EAFNOSUPPORT) {
        test_loop_destroy(&loop);
        SKIP("no Unix sockets here");
    }
    CHECK_OK(err);
    dial.conn.user = &out;
    CHECK_OK(CALL(netio_conn_dial(&out.c, loop, addr, &end_all, &dial)));
    CHECK_OK(CALL(netio_conn_write(out.c, "hello", 5)));
    RUN_UNTIL(loop, out.got == 5);
    CHECK_OK(netio_listener_addr(l, &a));
    test_loop_destroy(&loop);
    end_check(&in);
    end_check(&out);
    netio_unix_unlink(&a);
}

// A full queue of a Unix listener says EAGAIN; the dial tries again within its deadline.
TEST(dial, waits_for_a_full_unix_backlog)
{
    enum { CLIENTS = 30 };
    netio_loop *loop;
    netio_socket listener, s;
    netio_socket_opts opts;
    netio_addr a;
    char addr[NETIO_ADDR_TEXT];
    static end out[CLIENTS];
    int opened = 0, accepted = 0;
    if (test_in_memory()) SKIP("no Unix sockets in memory");
    memset(out, 0, sizeof out);
    memset(&opts, 0, sizeof opts);
    opts.backlog = 1;
    snprintf(addr, sizeof addr, "unix:%s", test_path("full.sock"));
    int err = netio_listen(&listener, addr, &opts);
    if (err == NETIO_ENOTSUP || err == NETIO_EAFNOSUPPORT) SKIP("no Unix sockets here");
    CHECK_OK(err);
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK_OK(test_loop_create(&loop, NULL));
    for (int i = 0; i < CLIENTS; i++) {
        netio_dial_opts dial;
        memset(&dial, 0, sizeof dial);
        dial.conn.user = &out[i];
        dial.timeout_ms = i == CLIENTS - 1 ? 60 : 10000; // the last gives up
        CHECK_OK(CALL(netio_conn_dial(&out[i].c, loop, addr, &end_all, &dial)));
    }
    RUN_UNTIL(loop, out[CLIENTS - 1].closed || out[CLIENTS - 1].opened);
    for (int i = 0; i < CLIENTS; i++) opened += out[i].opened;
    if (opened < CLIENTS) {
        CHECK_ERR(NETIO_ETIMEDOUT, out[CLIENTS - 1].err);
        while (opened < CLIENTS - 1) { // now somebody accepts
            if (netio_accept(&s, listener, NULL, 0) == 0) {
                accepted++;
                CHECK_OK(netio_close(&s));
            }
            CHECK(netio_loop_run_once(loop, 5) >= 0);
            opened = 0;
            for (int i = 0; i < CLIENTS - 1; i++) opened += out[i].opened;
        }
    }
    CHECK_OK(netio_close(&listener));
    test_loop_destroy(&loop);
    netio_unix_unlink(&a);
    for (int i = 0; i < CLIENTS; i++) CHECK_EQ(1, out[i].closed);
}

// Dialing a free port of one's own range now and then connects a socket with itself; that is not a
// connection.
TEST(dial, never_connects_with_itself)
{
    netio_loop *loop;
    end e;
    char addr[NETIO_ADDR_TEXT];
    netio_dial_opts dial;
    CHECK_OK(test_loop_create(&loop, NULL));
    closed_port(loop, addr);
    for (int i = 0; i < 20; i++) {
        memset(&e, 0, sizeof e);
        memset(&dial, 0, sizeof dial);
        dial.conn.user = &e;
        dial.socket.local = addr; // the surest way
        CHECK_OK(CALL(netio_conn_dial(&e.c, loop, addr, &end_all, &dial)));
        RUN_UNTIL(loop, e.closed || e.opened);
        CHECK_EQ(0, e.opened);
        CHECK(e.err < 0);
        if (i == 0 && test_under("wine")) break; // 2 s each
    }
    test_loop_destroy(&loop);
}

//================================================================================================

// clang-format off
TEST_MAIN("dial",
    T(dial, reaches_a_listener),
    T(dial, refused),
    T(dial, times_out),
    T(dial, can_be_cancelled),
    T(dial, closed_at_once_still_delivers),
    T(dial, refuses_text_that_is_no_address),
    T(dial, handle_may_be_unwanted),
    T(dial, tells_its_host),
    T(dial, comes_from_the_address_asked_for),
    T(dial, over_ipv6),
    T(dial, falls_back_to_the_next),
    T(dial, races_past_one_that_hangs),
    T(dial, tells_of_every_attempt),
    T(dial, all_refused_is_refused),
    T(dial, by_name_takes_the_address_that_lives),
    T(dial, by_name_with_a_dead_first_family),
    T(dial, by_name_of_the_network),
    T(dial, by_name_that_does_not_exist),
    T(dial, deadline_covers_a_resolver_that_hangs),
    T(dial, two_nodes_dial_each_other),
    T(dial, over_a_unix_socket),
    T(dial, waits_for_a_full_unix_backlog),
    T(dial, never_connects_with_itself))
