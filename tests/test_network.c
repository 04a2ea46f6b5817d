// The network in memory: what it does to bytes, datagrams and time, exactly and the same each time.
//
// A `world` is a network and the loops on it. Its connections note what happens to them, and when
// on the network's clock. That programs behave on it as over sockets is shown by those that run
// over both; here stands what only this network does, and pairs of connections on any loop.
#include "test.h"

#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

enum { LOOPS = 4, ENDS = 300 };

typedef struct end {
    netio_conn c;
    netio_loop *loop; // that opened it
    int opened, ended, drained, closed, err;
    uint64_t opened_us, got_us, closed_us; // got_us: last bytes
    uint64_t got, pieces, largest, hash;   // received
    uint64_t sent;                         // written so far, of `total`
    uint64_t total;
    bool echo, shut; // send back what comes; shutdown after `total`
    int (*then)(struct end *e);
} end;

static struct {
    netio_network *net;
    netio_loop *loops[LOOPS];
    netio_listener l;
    char addr[NETIO_ADDR_TEXT];
    end ends[ENDS]; // of the listener, in order
    int count;
    bool echo, may_lack; // may_lack: allocations fail
    uint64_t trace;      // hash of all that happened, and when
} w;

static uint64_t now(void) { return netio_network_now_us(w.net); }

static void trace(uint64_t value)
{
    w.trace = (w.trace ^ value ^ (w.net ? now() : 0)) * 1099511628211u + 0x9e3779b97f4a7c15u;
}

static unsigned char byte_at(uint64_t pos) { return (unsigned char)(pos * 7 + (pos >> 8)); }

// Where memory may run out, that ends the connection.
static bool put(end *e, const void *data, size_t len)
{
    int err = netio_conn_write(e->c, data, len);
    if (err == NETIO_ENOMEM && w.may_lack) netio_conn_abort(e->c);
    else CHECK_OK(err);
    return err == 0;
}

static void pump(end *e)
{
    unsigned char buf[5000];
    while (e->sent < e->total && !netio_conn_congested(e->c)) {
        size_t n = e->total - e->sent < sizeof buf ? (size_t)(e->total - e->sent) : sizeof buf;
        for (size_t i = 0; i < n; i++) buf[i] = byte_at(e->sent + i);
        if (!put(e, buf, n)) return;
        e->sent += n;
    }
    if (e->total && e->sent == e->total && e->shut) netio_conn_shutdown(e->c);
}

static end *end_of(netio_conn c)
{
    end *e = (end *)netio_conn_user(c);
    if (e) return e;
    CHECK(w.count < ENDS);
    e = &w.ends[w.count++];
    e->c = c;
    e->echo = w.echo;
    netio_conn_set_user(c, e);
    return e;
}

static void on_open(netio_conn c)
{
    end *e = end_of(c);
    e->opened++;
    e->loop = netio_conn_loop(c);
    e->opened_us = now();
    trace(1);
    pump(e);
}

static void on_data(netio_conn c, const void *data, size_t len)
{
    end *e = end_of(c);
    const unsigned char *p = (const unsigned char *)data;
    trace(2 + len);
    for (size_t i = 0; i < len; i++) {
        if (p[i] != byte_at(e->got + i)) test_fail(__FILE__, __LINE__, "a wrong byte");
        e->hash = (e->hash ^ p[i]) * 1099511628211u;
    }
    e->got += len;
    e->got_us = now();
    e->pieces++;
    if (len > e->largest) e->largest = len;
    if (e->echo) put(e, data, len);
    if (e->then) e->then(e);
}

static void on_drain(netio_conn c)
{
    end *e = end_of(c);
    e->drained++;
    pump(e);
}

static void on_eof(netio_conn c)
{
    end *e = end_of(c);
    e->ended++;
    trace(3);
    netio_conn_shutdown(c);
}

static void on_close(netio_conn c, int err)
{
    end *e = end_of(c);
    e->closed++;
    e->closed_us = now();
    e->err = err;
    trace(4 + (uint64_t)-err);
}

static const netio_handler handler = {.on_open = on_open,
                                      .on_data = on_data,
                                      .on_drain = on_drain,
                                      .on_eof = on_eof,
                                      .on_close = on_close};

// --- making and ending the world ---------------------------------------------------------------

static void world(uint64_t seed, const netio_link *link)
{
    netio_network_opts o;
    memset(&w, 0, sizeof w);
    memset(&o, 0, sizeof o);
    o.seed = seed;
    if (link) o.link = *link;
    CHECK_OK(netio_network_create(&w.net, &o));
}

static netio_loop *join(int i, const char *host)
{
    netio_loop_opts o;
    memset(&o, 0, sizeof o);
    o.network = w.net;
    o.host = host;
    CHECK_OK(netio_loop_create(&w.loops[i], &o));
    return w.loops[i];
}

static void serve(const char *address)
{
    netio_addr a;
    CHECK_OK(netio_listener_open(&w.l, w.loops[0], address, &handler, NULL));
    CHECK_OK(netio_listener_addr(w.l, &a));
    CHECK(netio_addr_format(&a, w.addr, sizeof w.addr) > 0);
}

// Two hosts, a listener on the first.
static void two(uint64_t seed, const netio_link *link)
{
    world(seed, link);
    join(0, "10.0.0.1");
    join(1, "10.0.0.2");
    serve("10.0.0.1:80");
}

static void dial_from(netio_loop *loop, end *e, const char *address)
{
    netio_dial_opts o;
    memset(&o, 0, sizeof o);
    o.conn.user = e;
    CHECK_OK(netio_conn_dial(&e->c, loop, address, &handler, &o));
}

static void dial(end *e) { dial_from(w.loops[1], e, w.addr); }

static void run(int ms) { CHECK_OK(netio_network_run(w.net, ms)); }

static void over(void)
{
    for (int i = 0; i < LOOPS; i++) CHECK_OK(netio_loop_destroy(w.loops[i]));
    CHECK_OK(netio_network_destroy(w.net));
    w.net = NULL;
}

static netio_link link_of(int latency_ms, size_t bandwidth)
{
    netio_link l;
    memset(&l, 0, sizeof l);
    l.latency_ms = latency_ms;
    l.bandwidth = bandwidth;
    return l;
}

//================================================================================================
// Time
//================================================================================================

static void tick(void *user) { ++*(int *)user; }

TEST(network, an_idle_hour_takes_no_time)
{
    int ticks = 0;
    end a;
    memset(&a, 0, sizeof a);
    two(1, NULL);
    dial(&a);
    CHECK_OK(netio_timer_every(NULL, w.loops[0], 1000, tick, &ticks));
    uint64_t start = now(), real = test_ms();
    run(3600000);
    CHECK_EQ(3600000000, now() - start);
    CHECK_EQ(3600, ticks);
    CHECK_BETWEEN(0, 999, test_ms() - real);
    CHECK_EQ(1, a.opened);
    over();
}

TEST(network, latency_is_exact)
{
    static const int latencies[] = {0, 1, 7, 250};
    for (size_t i = 0; i < sizeof latencies / sizeof latencies[0]; i++) {
        netio_link l = link_of(latencies[i], 0);
        uint64_t one = (uint64_t)latencies[i] * 1000;
        end a;
        memset(&a, 0, sizeof a);
        a.total = 100;
        two(1, &l);
        w.echo = true;
        uint64_t start = now();
        dial(&a);
        run(5000);
        end *b = &w.ends[0];
        CHECK_EQ(2 * one, a.opened_us - start); // SYN, and its answer
        CHECK_EQ(3 * one, b->opened_us - start);
        CHECK_EQ(3 * one, b->got_us - start);
        CHECK_EQ(4 * one, a.got_us - start);
        CHECK_OK(netio_conn_close(a.c));
        start = now();
        run(5000);
        CHECK_EQ(one, b->closed_us - start); // FIN comes, FIN goes
        CHECK_EQ(2 * one, a.closed_us - start);
        over();
    }
}

TEST(network, bandwidth_is_exact)
{
    static const struct {
        size_t rate, bytes;
        uint64_t us;
    } cases[] = {{1000000, 250000, 250000}, {1000, 100, 100000},        {3, 3, 1000000},
                 {7, 100, 14285714},        {125000000, 1000000, 8000}, {333333, 1000000, 3000003}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        netio_link l = link_of(10, cases[i].rate);
        end a;
        memset(&a, 0, sizeof a);
        a.total = cases[i].bytes;
        l.window = 4 << 20;
        two(1, &l);
        dial(&a);
        run(30000);
        CHECK_EQ(cases[i].bytes, w.ends[0].got);
        CHECK_EQ(cases[i].us + 10000, w.ends[0].got_us - a.opened_us);
        if (cases[i].bytes > 100000) CHECK(w.ends[0].pieces > 50); // not in one lump
        over();
    }
}

TEST(network, each_connection_has_the_bandwidth_for_itself)
{
    netio_link l = link_of(0, 100000);
    end a[3];
    memset(a, 0, sizeof a);
    two(1, &l);
    for (int i = 0; i < 3; i++) {
        a[i].total = 50000;
        dial(&a[i]);
    }
    run(10000);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(50000, w.ends[i].got);
        CHECK_EQ(500000, w.ends[i].got_us - a[i].opened_us);
    }
    over();
}

// A window of 1000 bytes: no more is under way until the peer has read.
TEST(network, window_bounds_what_is_under_way)
{
    netio_link l = link_of(5, 0);
    end a;
    memset(&a, 0, sizeof a);
    a.total = 10000;
    l.window = 1000;
    two(1, &l);
    dial(&a);
    run(15); // it has been accepted
    CHECK_EQ(1, w.count);
    CHECK_OK(netio_conn_pause(w.ends[0].c));
    run(10000);
    size_t left = netio_conn_pending(a.c);
    CHECK_EQ(9000, (long long)(left + w.ends[0].got));
    CHECK_OK(netio_conn_resume(w.ends[0].c));
    uint64_t start = now();
    run(10000);
    CHECK_EQ(10000, w.ends[0].got);
    CHECK_EQ(left / 1000 * 5000, w.ends[0].got_us - start);
    over();
}

static void note_time(void *user) { *(uint64_t *)user = now(); }

TEST(network, timers_of_all_loops_run_in_order_of_time)
{
    uint64_t at[3];
    int once = 0;
    world(1, NULL);
    for (int i = 0; i < 3; i++) join(i, NULL);
    CHECK_OK(netio_timer_once(NULL, w.loops[0], 30, note_time, &at[0]));
    CHECK_OK(netio_timer_once(NULL, w.loops[1], 10, note_time, &at[1]));
    CHECK_OK(netio_timer_once(NULL, w.loops[2], 20, note_time, &at[2]));
    uint64_t start = now();
    run(-1);
    CHECK_EQ(30000, at[0] - start);
    CHECK_EQ(10000, at[1] - start);
    CHECK_EQ(20000, at[2] - start);
    CHECK_EQ(30000, now() - start); // and then nothing was left
    run(100);
    CHECK_EQ(130000, now() - start);

    CHECK_OK(netio_timer_once(NULL, w.loops[1], 10, tick, &once));
    CHECK_ERR(0, netio_loop_run_once(w.loops[1], 4));
    CHECK_EQ(134000, now() - start);
    CHECK_ERR(1, netio_loop_run_once(w.loops[1], 1000));
    CHECK_EQ(140000, now() - start);
    CHECK_EQ(140 + start / 1000, netio_loop_now_ms(w.loops[1]));
    CHECK_ERR(0, netio_loop_run_once(w.loops[1], 5)); // nothing is left; the time passes
    CHECK_EQ(145000, now() - start);
    over();
}

//================================================================================================
// Bytes
//================================================================================================

static const netio_link rough = {
    .latency_ms = 7, .jitter_ms = 3, .window = 5000, .piece_max = 700, .send_max = 900};

static uint64_t transfer(uint64_t seed, const netio_link *link, uint64_t *hash)
{
    end a[5];
    memset(a, 0, sizeof a);
    two(seed, link);
    w.echo = true;
    for (int i = 0; i < 5; i++) {
        a[i].total = 20000 + 7000 * (uint64_t)i;
        a[i].shut = true;
        dial(&a[i]);
    }
    run(60000);
    *hash = 0;
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(a[i].total, a[i].got);
        CHECK_EQ(1, a[i].closed);
        CHECK_OK(a[i].err);
        CHECK_OK(w.ends[i].err);
        CHECK_EQ(1, w.ends[i].closed);
        *hash ^= a[i].hash;
    }
    over();
    return w.trace;
}

TEST(network, same_bytes_over_every_link)
{
    uint64_t smooth_hash, hash;
    transfer(1, NULL, &smooth_hash);
    for (uint64_t seed = 1; seed < 20; seed++) {
        transfer(seed, &rough, &hash);
        CHECK_EQ(smooth_hash, hash);
    }
}

TEST(network, one_seed_is_one_order_of_events)
{
    uint64_t hash, traces[20];
    for (uint64_t seed = 1; seed <= 20; seed++) {
        traces[seed - 1] = transfer(seed, &rough, &hash);
        CHECK(traces[seed - 1] == transfer(seed, &rough, &hash));
        CHECK(seed == 1 || traces[seed - 1] != traces[seed - 2]);
    }
    CHECK(transfer(0, &rough, &hash) == traces[0]); // 0 is 1
}

static ptrdiff_t most_sent, sends;

static void note_send(void *user, int op, netio_conn c, ptrdiff_t result)
{
    (void)user, (void)c;
    if (op != NETIO_OP_SEND || result <= 0) return;
    sends++;
    if (result > most_sent) most_sent = result;
}

TEST(network, pieces_and_sends_are_of_random_sizes_up_to_their_limits)
{
    netio_link l = link_of(1, 0);
    netio_loop_opts o;
    end a;
    memset(&a, 0, sizeof a);
    memset(&o, 0, sizeof o);
    a.total = 100000;
    l.piece_max = 100;
    l.send_max = 333;
    most_sent = sends = 0;
    world(1, &l);
    join(0, "10.0.0.1");
    o.network = w.net;
    o.host = "10.0.0.2";
    o.on_op = note_send;
    CHECK_OK(netio_loop_create(&w.loops[1], &o));
    serve(":80");
    snprintf(w.addr, sizeof w.addr, "10.0.0.1:80");
    dial(&a);
    run(60000);
    CHECK_EQ(100000, w.ends[0].got);
    CHECK_EQ(100, w.ends[0].largest);
    CHECK_BETWEEN(1500, 2700, w.ends[0].pieces); // 50 on average
    CHECK_EQ(333, most_sent);
    CHECK_BETWEEN(450, 800, sends);
    over();
}

TEST(network, reset_at_is_exact)
{
    static const uint64_t at[] = {1, 1000, 4096, 99999};
    for (size_t i = 0; i < 4; i++) {
        for (int latency = 0; latency < 20; latency += 10) {
            netio_link l = link_of(latency, 0);
            end a;
            memset(&a, 0, sizeof a);
            a.total = 100000;
            l.reset_at = at[i];
            two(i + 1, &l);
            dial(&a);
            run(10000);
            CHECK_EQ(at[i], w.ends[0].got);
            CHECK_ERR(NETIO_ECONNRESET, w.ends[0].err);
            CHECK_ERR(NETIO_ECONNRESET, a.err);
            CHECK_EQ(1, a.closed + w.ends[0].closed - 1);
            over();
        }
    }
}

TEST(network, both_directions_may_be_reset_at_once)
{
    for (int latency = 0; latency < 20; latency += 10) {
        netio_link l = link_of(latency, 0);
        end a;
        memset(&a, 0, sizeof a);
        two(1, &l);
        dial(&a);
        run(100);
        end *b = &w.ends[0];
        l.reset_at = 700;
        CHECK_OK(netio_network_link(w.net, NULL, NULL, &l)); // for what is sent from now on
        a.total = b->total = 1000;
        pump(&a);
        pump(b);
        run(1000);
        CHECK_EQ(700, a.got > b->got ? a.got : b->got); // the first one's end ends the other, too
        CHECK_ERR(NETIO_ECONNRESET, a.err);
        CHECK_ERR(NETIO_ECONNRESET, b->err);
        over();
    }
}

TEST(network, a_partition_stalls_connections_until_it_heals)
{
    netio_link l = link_of(10, 100000), cut = l;
    end a, late, never;
    memset(&a, 0, sizeof a);
    memset(&late, 0, sizeof late);
    memset(&never, 0, sizeof never);
    a.total = 100000;
    cut.cut = true;
    two(1, &l);
    w.echo = true;
    dial(&a);
    run(300);
    uint64_t got = w.ends[0].got;
    CHECK_BETWEEN(20000, 30000, got);
    CHECK_OK(netio_network_link(w.net, "10.0.0.1", NULL, &cut));
    dial(&late);
    run(20000);
    CHECK_EQ(got, w.ends[0].got);
    CHECK_EQ(0, late.opened + late.closed);
    CHECK_OK(netio_network_link(w.net, NULL, "10.0.0.1", &l));
    uint64_t start = now();
    run(5000);
    CHECK_EQ(100000, w.ends[0].got);
    CHECK_EQ(100000, a.got);
    CHECK_EQ(20000, late.opened_us - start); // the SYN, its answer
    CHECK_OK(netio_network_link(w.net, NULL, NULL, &cut));
    dial(&never);
    start = now();
    run(40000);
    CHECK_ERR(NETIO_ETIMEDOUT, never.err);
    CHECK_EQ(30000000, never.closed_us - start); // the usual deadline of a dial
    over();
}

// Links of every kind replace each other while bytes go to and fro; in the end all have come.
TEST(network, links_that_change_lose_no_byte)
{
    for (uint32_t seed = 1; seed <= 60; seed++) {
        uint32_t random = seed;
        end a[6];
        memset(a, 0, sizeof a);
        two(seed, NULL);
        w.echo = true;
        for (int i = 0; i < 6; i++) {
            a[i].total = test_random(&random) % 60000 + 1;
            a[i].shut = true;
        }
        for (int i = 0; i < 40; i++) {
            netio_link l = link_of((int)(test_random(&random) % 30), 0);
            if (test_random(&random) % 2) l.bandwidth = 1000 + test_random(&random) % 200000;
            if (test_random(&random) % 2) l.window = 1 + test_random(&random) % 20000;
            if (test_random(&random) % 2) l.piece_max = 1 + test_random(&random) % 3000;
            if (test_random(&random) % 2) l.send_max = 1 + test_random(&random) % 3000;
            l.cut = test_random(&random) % 3 == 0;
            if (i < 6) dial(&a[i]);
            CHECK_OK(netio_network_link(w.net, test_random(&random) % 2 ? "10.0.0.2" : NULL,
                                        "10.0.0.1", &l));
            run((int)(test_random(&random) % 200));
            if (test_random(&random) % 4) continue;
            netio_conn c = a[test_random(&random) % 6].c;
            if (!netio_conn_alive(c)) continue;
            CHECK_OK(netio_conn_pause(c));
            run((int)(test_random(&random) % 50));
            if (netio_conn_alive(c)) CHECK_OK(netio_conn_resume(c));
        }
        netio_link good = link_of(5, 1000000);
        CHECK_OK(netio_network_link(w.net, NULL, NULL, &good));
        run(60000);
        for (int i = 0; i < 6; i++) {
            CHECK_EQ(a[i].total, a[i].got);
            CHECK_EQ(1, a[i].closed);
            CHECK_OK(a[i].err);
        }
        over();
    }
}

TEST(network, links_differ_between_hosts_and_the_last_that_fits_counts)
{
    static const struct {
        const char *a, *b;
        int latency_ms;
    } set[] = {{"10.0.0.1", "10.0.0.2", 5}, {"10.0.0.3", NULL, 50}, {"10.0.0.2", "10.0.0.3", 8}};
    end a, b, c;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    memset(&c, 0, sizeof c);
    two(1, NULL);
    join(2, "10.0.0.3");
    for (int i = 0; i < 3; i++) {
        netio_link l = link_of(set[i].latency_ms, 0);
        CHECK_OK(netio_network_link(w.net, set[i].a, set[i].b, &l));
    }
    netio_listener l;
    CHECK_OK(netio_listener_open(&l, w.loops[2], "10.0.0.3:80", &handler, NULL));
    uint64_t start = now();
    dial_from(w.loops[1], &a, "10.0.0.1:80");
    dial_from(w.loops[1], &b, "10.0.0.3:80");
    dial_from(w.loops[2], &c, "10.0.0.1:80");
    run(1000);
    CHECK_EQ(10000, a.opened_us - start);
    CHECK_EQ(16000, b.opened_us - start);
    CHECK_EQ(100000, c.opened_us - start);
    over();
}

//================================================================================================
// How connections begin and end
//================================================================================================

TEST(network, ends_arrive_after_all_bytes)
{
    for (int half = 0; half < 2; half++) { // which side ends first
        netio_link l = link_of(20, 50000);
        end a;
        memset(&a, 0, sizeof a);
        a.total = 30000;
        a.shut = half == 0;
        two(1, &l);
        dial(&a);
        run(60); // it is accepted now
        end *b = &w.ends[0];
        b->total = 30000;
        b->shut = half == 1;
        pump(b);
        run(5000);
        CHECK_EQ(30000, a.got);
        CHECK_EQ(30000, b->got);
        CHECK_EQ(1, half ? a.ended : b->ended);
        CHECK_EQ(1, a.closed);
        CHECK_OK(a.err);
        CHECK_OK(b->err);
        over();
    }
}

TEST(network, an_abort_discards_what_waits_and_resets_the_peer)
{
    netio_link l = link_of(10, 10000);
    end a;
    memset(&a, 0, sizeof a);
    a.total = 30000;
    two(1, &l);
    dial(&a);
    run(1020); // 10 000 bytes a second, half of the window still waits for the line
    uint64_t got = w.ends[0].got;
    CHECK_BETWEEN(8000, 10000, got);
    CHECK_OK(netio_conn_abort(a.c));
    uint64_t start = now();
    run(5000);
    CHECK_EQ(10000, w.ends[0].closed_us - start);
    CHECK_ERR(NETIO_ECONNRESET, w.ends[0].err);
    CHECK_BETWEEN(got, got + 1460, w.ends[0].got); // what was in the air
    CHECK_ERR(NETIO_ECONNABORTED, a.err);
    over();
}

TEST(network, nobody_listens)
{
    netio_link l = link_of(10, 0);
    end a;
    memset(&a, 0, sizeof a);
    two(1, &l);
    uint64_t start = now();
    dial_from(w.loops[1], &a, "10.0.0.1:81");
    run(1000);
    CHECK_ERR(NETIO_ECONNREFUSED, a.err);
    CHECK_EQ(20000, a.closed_us - start);
    over();
}

TEST(network, the_backlog_is_bounded_and_those_beyond_come_late)
{
    netio_listener_opts o;
    end a[8];
    memset(a, 0, sizeof a);
    memset(&o, 0, sizeof o);
    o.socket.backlog = 3;
    world(1, NULL);
    join(0, NULL);
    join(1, NULL);
    CHECK_OK(netio_listener_open(&w.l, w.loops[0], "127.0.0.1:80", &handler, &o));
    CHECK_OK(netio_listener_pause(w.l));
    for (int i = 0; i < 8; i++) dial_from(w.loops[1], &a[i], "127.0.0.1:80");
    run(100);
    int opened = 0;
    for (int i = 0; i < 8; i++) opened += a[i].opened;
    CHECK_EQ(3, opened); // the kernel's part of the handshake
    CHECK_EQ(0, w.count);
    CHECK_OK(netio_listener_resume(w.l));
    run(10000);
    for (int i = 0; i < 8; i++) CHECK_EQ(1, a[i].opened);
    CHECK_EQ(8, w.count);
    over();
}

TEST(network, closing_a_listener_resets_those_who_wait)
{
    end a[3];
    memset(a, 0, sizeof a);
    netio_link l = link_of(10, 0);
    two(1, &l);
    CHECK_OK(netio_listener_pause(w.l));
    dial(&a[0]);
    run(30); // in the queue
    dial(&a[1]);
    run(15); // its SYN has been answered
    dial(&a[2]);
    netio_listener_close(w.l);
    run(5000);
    CHECK_ERR(NETIO_ECONNRESET, a[0].err);
    CHECK(a[1].err == NETIO_ECONNRESET || a[1].err == NETIO_ECONNREFUSED);
    CHECK_ERR(NETIO_ECONNREFUSED, a[2].err);
    over();
}

TEST(network, a_loop_that_leaves_resets_its_peers)
{
    end a;
    memset(&a, 0, sizeof a);
    two(1, NULL);
    dial(&a);
    run(10);
    CHECK_EQ(1, w.count);
    CHECK_OK(netio_loop_destroy(w.loops[0]));
    w.loops[0] = NULL;
    CHECK_EQ(1, w.ends[0].closed);
    CHECK_ERR(NETIO_ECANCELED, w.ends[0].err);
    run(10);
    CHECK_ERR(NETIO_ECONNRESET, a.err);
    over();
}

//================================================================================================
// Names, addresses, ports
//================================================================================================

static struct {
    int count, err;
    netio_addr list[8];
} found;

static void on_found(void *user, int err, const netio_addr *addrs, size_t count)
{
    (void)user;
    found.err = err;
    found.count = (int)count;
    if (err == 0) memcpy(found.list, addrs, (count < 8 ? count : 8) * sizeof *addrs);
}

static void look_up(const char *text, const netio_resolve_opts *o)
{
    memset(&found, 0, sizeof found);
    found.err = 1;
    CHECK_OK(netio_lookup_start(NULL, w.loops[1], text, o, -1, on_found, NULL));
    run(1);
}

TEST(network, names_are_what_it_was_told)
{
    netio_resolve_opts v6;
    char text[NETIO_ADDR_TEXT];
    end a, b;
    memset(&v6, 0, sizeof v6);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    v6.family = NETIO_IPV6;
    two(1, NULL);
    CHECK_OK(netio_network_name(w.net, "server.test", "10.0.0.1"));
    CHECK_OK(netio_network_name(w.net, "server.test", "10.0.0.1"));
    CHECK_OK(netio_network_name(w.net, "server.test", "fd00::1"));
    CHECK_ERR(NETIO_EINVAL, netio_network_name(w.net, "server.test", "10.0.0"));
    CHECK_ERR(NETIO_EINVAL, netio_network_name(w.net, "10.0.0.1", "10.0.0.1"));
    CHECK_ERR(NETIO_EINVAL, netio_network_name(w.net, "", "10.0.0.1"));
    look_up("Server.TEST:99", NULL);
    CHECK_OK(found.err);
    CHECK_EQ(2, found.count);
    CHECK(netio_addr_format(&found.list[0], text, sizeof text) > 0);
    CHECK_STR("10.0.0.1:99", text);
    look_up("server.test:99", &v6);
    CHECK_OK(found.err);
    CHECK_EQ(1, found.count);
    CHECK(netio_addr_format(&found.list[0], text, sizeof text) > 0);
    CHECK_STR("[fd00::1]:99", text);
    look_up("other.test:99", NULL);
    CHECK_ERR(NETIO_EAI_NONAME, found.err);

    dial_from(w.loops[1], &a, "server.test:80"); // fd00::1 cannot be reached from here
    dial_from(w.loops[1], &b, "nowhere.test:80");
    run(1000);
    CHECK_EQ(1, a.opened);
    CHECK_ERR(NETIO_EAI_NONAME, b.err);
    over();
}

TEST(network, ports_are_taken_and_given_back)
{
    netio_listener l, m;
    netio_addr a, b;
    netio_udp u;
    static const netio_udp_handler no_udp;
    two(1, NULL); // 10.0.0.1:80 is taken
    CHECK_ERR(NETIO_EADDRINUSE, netio_listener_open(&l, w.loops[0], "10.0.0.1:80", &handler, NULL));
    CHECK_ERR(NETIO_EADDRINUSE, netio_listener_open(&l, w.loops[0], ":80", &handler, NULL));
    CHECK_ERR(NETIO_EADDRINUSE, netio_listener_open(&l, w.loops[0], "0.0.0.0:80", &handler, NULL));
    CHECK_OK(netio_udp_open(&u, w.loops[0], "10.0.0.1:80", &no_udp, NULL)); // another space
    CHECK_OK(netio_listener_open(&l, w.loops[1], ":80", &handler, NULL));   // another machine
    CHECK_ERR(NETIO_EINVAL, netio_listener_open(&m, w.loops[1], "nonsense", &handler, NULL));
    netio_listener_close(w.l);
    CHECK_OK(netio_listener_open(&w.l, w.loops[0], ":80", &handler, NULL));
    CHECK_OK(netio_listener_open(&l, w.loops[0], ":0", &handler, NULL));
    CHECK_OK(netio_listener_open(&m, w.loops[0], ":0", &handler, NULL));
    CHECK_OK(netio_listener_addr(l, &a));
    CHECK_OK(netio_listener_addr(m, &b));
    CHECK(netio_addr_port(&a) >= 32768);
    CHECK(netio_addr_port(&a) != netio_addr_port(&b));
    over();
}

TEST(network, clients_ports_differ_and_run_out)
{
    end a[3];
    netio_dial_opts o;
    netio_addr x, y;
    memset(a, 0, sizeof a);
    memset(&o, 0, sizeof o);
    two(1, NULL);
    dial(&a[0]);
    run(1);
    o.conn.user = &a[1];
    CHECK_OK(netio_conn_local(a[0].c, &x));
    CHECK_OK(netio_conn_peer(w.ends[0].c, &y));
    CHECK(netio_addr_equal(&x, &y));
    char text[NETIO_ADDR_TEXT];
    CHECK(netio_addr_format(&x, text, sizeof text) > 0);
    o.socket.local = text; // the same again
    CHECK_OK(netio_conn_dial(&a[1].c, w.loops[1], w.addr, &handler, &o));
    o.conn.user = &a[2];
    o.socket.local = ":7777";
    CHECK_OK(netio_conn_dial(&a[2].c, w.loops[1], w.addr, &handler, &o));
    run(1);
    CHECK_ERR(NETIO_EADDRINUSE, a[1].err);
    CHECK_EQ(1, a[2].opened);
    CHECK_OK(netio_conn_local(a[2].c, &x));
    CHECK_EQ(7777, netio_addr_port(&x));
    over();
}

TEST(network, both_families_and_any_interface)
{
    static const struct {
        const char *listen, *dial;
        int err;
    } cases[] = {
        {":80", "10.0.0.1:80", 0},
        {":80", "127.0.0.1:80", 0},
        {":80", "[::1]:80", 0},
        {":80", ":80", 0},
        {"0.0.0.0:80", "10.0.0.1:80", 0},
        {"0.0.0.0:80", "[::1]:80", NETIO_ECONNREFUSED},
        {"[::]:80", "10.0.0.1:80", 0},
        {"[::1]:80", "[::1]:80", 0},
        {"[::1]:80", "127.0.0.1:80", NETIO_ECONNREFUSED},
        {"127.0.0.1:80", "[::ffff:127.0.0.1]:80", 0},
        {"10.0.0.1:80", "[fd00::1]:80", NETIO_ENETUNREACH},
        {"10.0.0.1:80", "10.0.0.9:80", NETIO_ECONNREFUSED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        end a;
        memset(&a, 0, sizeof a);
        world(1, NULL);
        join(0, "10.0.0.1");
        serve(cases[i].listen);
        dial_from(w.loops[0], &a, cases[i].dial);
        run(1000);
        if (a.err != cases[i].err)
            test_fail(__FILE__, __LINE__, "%s from %s: %s", cases[i].dial, cases[i].listen,
                      netio_errname(a.err));
        CHECK_EQ(cases[i].err == 0, a.opened);
        over();
    }
}

TEST(network, loopback_of_any_interface_is_of_one_host)
{
    end a, b;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    world(1, NULL);
    join(0, "10.0.0.1");
    join(1, "10.0.0.2");
    serve(":80");
    dial_from(w.loops[1], &a, "127.0.0.1:80");
    dial_from(w.loops[1], &b, "10.0.0.1:80");
    run(100);
    CHECK_ERR(NETIO_ECONNREFUSED, a.err);
    CHECK_EQ(1, b.opened);
    over();
}

TEST(network, a_host_may_be_ipv6)
{
    end a;
    netio_addr peer;
    char text[NETIO_ADDR_TEXT];
    memset(&a, 0, sizeof a);
    world(1, NULL);
    join(0, "fd00::1");
    join(1, "fd00::2");
    serve(":80");
    dial_from(w.loops[1], &a, "[fd00::1]:80");
    run(100);
    CHECK_EQ(1, a.opened);
    CHECK_OK(netio_conn_peer(w.ends[0].c, &peer));
    CHECK(netio_addr_format_host(&peer, text, sizeof text) > 0);
    CHECK_STR("fd00::2", text);
    over();
}

//================================================================================================
// Datagrams
//================================================================================================

typedef struct point {
    netio_udp u;
    netio_addr addr, from, local;
    int got, batches, largest_batch, drained, refused, closed, last, swaps;
    bool answer, truncated;
    size_t len, full;
    uint64_t at_us;
    uint8_t seen[20000]; // how often number i came
} point;

static void on_datagrams(netio_udp u, netio_datagram *m, size_t count)
{
    point *p = (point *)netio_udp_user(u);
    p->batches++;
    if ((int)count > p->largest_batch) p->largest_batch = (int)count;
    for (size_t i = 0; i < count; i++) {
        int number = 0;
        if (m[i].len >= sizeof number) memcpy(&number, m[i].data, sizeof number);
        if (number >= 0 && number < (int)sizeof p->seen) p->seen[number]++;
        p->swaps += p->got > 0 && number < p->last;
        p->last = number;
        p->got++;
        p->from = m[i].peer;
        p->local = m[i].local;
        p->len = m[i].len;
        p->full = m[i].full;
        p->truncated = m[i].truncated;
    }
    p->at_us = w.net ? now() : 0;
    trace((uint64_t)p->last);
    if (p->answer) CHECK_ERR((ptrdiff_t)count, netio_udp_send_batch(u, m, count));
}

static void on_udp_drain(netio_udp u) { ((point *)netio_udp_user(u))->drained++; }

static void on_udp_error(netio_udp u, int err)
{
    ((point *)netio_udp_user(u))->refused += err == NETIO_ECONNREFUSED;
}

static void on_udp_close(netio_udp u, int err)
{
    (void)err;
    ((point *)netio_udp_user(u))->closed++;
}

static const netio_udp_handler udp_handler = {on_datagrams, on_udp_drain, on_udp_error,
                                              on_udp_close};

static void point_open(point *p, netio_loop *loop, const char *address, const char *peer)
{
    netio_udp_opts o;
    memset(p, 0, sizeof *p);
    memset(&o, 0, sizeof o);
    o.user = p;
    o.peer = peer;
    CHECK_OK(netio_udp_open(&p->u, loop, address, &udp_handler, &o));
    CHECK_OK(netio_udp_addr(p->u, &p->addr));
}

static void send_number(point *p, int number, const netio_addr *to)
{
    CHECK_OK(netio_udp_send(p->u, &number, sizeof number, to));
}

static point p1, p2;

static void two_points(const netio_link *link)
{
    two(1, link);
    point_open(&p1, w.loops[0], "10.0.0.1:53", NULL);
    point_open(&p2, w.loops[1], "10.0.0.2:53", NULL);
}

TEST(network, datagrams_come_in_batches_and_can_be_sent_back)
{
    netio_link l = link_of(10, 0);
    char text[NETIO_ADDR_TEXT];
    two_points(&l);
    p1.answer = true;
    uint64_t start = now();
    for (int i = 0; i < 100; i++) send_number(&p2, i, &p1.addr);
    run(100);
    CHECK_EQ(100, p1.got);
    CHECK_EQ(100, p2.got);
    CHECK(p1.largest_batch > 1);
    CHECK_EQ(20000, p2.at_us - start);
    CHECK(netio_addr_equal(&p1.from, &p2.addr));
    CHECK(netio_addr_format(&p1.local, text, sizeof text) > 0);
    CHECK_STR("10.0.0.1:0", text);
    CHECK_EQ(0, p2.swaps);
    over();
}

TEST(network, datagrams_are_lost_doubled_and_overtaken_as_the_link_says)
{
    static const struct {
        int loss, twice, jitter, low, high;
    } cases[] = {{0, 0, 0, 10000, 10000},    {1000, 0, 0, 0, 0},        {100, 0, 0, 8800, 9200},
                 {0, 1000, 0, 20000, 20000}, {0, 200, 0, 11800, 12200}, {0, 0, 50, 10000, 10000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        netio_link l = link_of(5, 0);
        l.loss_permille = cases[i].loss;
        l.duplicate_permille = cases[i].twice;
        l.jitter_ms = cases[i].jitter;
        two_points(&l);
        for (int n = 0; n < 10000; n++) {
            send_number(&p2, n, &p1.addr);
            if (n % 100 == 99) run(cases[i].jitter ? 3 : 6);
        }
        run(100);
        CHECK_BETWEEN(cases[i].low, cases[i].high, p1.got);
        if (cases[i].jitter) CHECK(p1.swaps > 100);
        else CHECK_EQ(0, p1.swaps);
        over();
    }
}

TEST(network, datagrams_last_as_long_as_the_bandwidth_says)
{
    netio_link l = link_of(10, 1000);
    two_points(&l);
    uint64_t start = now();
    for (int n = 0; n < 250; n++) send_number(&p2, n, &p1.addr); // 4 bytes each
    run(5000);
    CHECK_EQ(250, p1.got);
    CHECK_EQ(1010000, p1.at_us - start);
    over();
}

TEST(network, datagrams_are_lost_in_a_partition)
{
    netio_link l = link_of(10, 0), cut = l;
    cut.cut = true;
    two_points(&l);
    send_number(&p2, 1, &p1.addr);
    run(5);
    CHECK_OK(netio_network_link(w.net, NULL, NULL, &cut)); // it is in the air
    send_number(&p2, 2, &p1.addr);
    run(20);
    CHECK_OK(netio_network_link(w.net, NULL, NULL, &l));
    send_number(&p2, 3, &p1.addr);
    run(20);
    CHECK_EQ(1, p1.got);
    CHECK_EQ(1, p1.seen[3]);
    over();
}

TEST(network, connected_endpoints_hear_of_nobody_and_of_nobody_else)
{
    point *c = &p2, *other = (point *)calloc(1, sizeof *other);
    netio_link l = link_of(10, 0);
    CHECK(other != NULL);
    two(1, &l);
    point_open(c, w.loops[1], NULL, "10.0.0.1:53");
    point_open(other, w.loops[0], "10.0.0.1:99", NULL);
    send_number(c, 1, NULL);
    run(19);
    CHECK_EQ(0, c->refused);
    run(1);
    CHECK_EQ(1, c->refused);
    point_open(&p1, w.loops[0], ":53", NULL);
    p1.answer = true;
    send_number(c, 2, NULL);
    send_number(other, 3, &c->addr); // not its peer
    run(100);
    CHECK_EQ(1, p1.got);
    CHECK_EQ(1, c->got);
    CHECK_EQ(2, c->last);
    CHECK_EQ(1, c->refused);
    over();
    free(other);
}

TEST(network, datagrams_are_cut_to_the_slot_and_may_be_empty_or_large)
{
    static char big[65508];
    netio_udp_opts o;
    two_points(NULL);
    CHECK_OK(netio_udp_send(p2.u, big, 3000, &p1.addr));
    run(1);
    CHECK_EQ(2048, p1.len);
    CHECK_EQ(3000, p1.full);
    CHECK(p1.truncated);
    CHECK_OK(netio_udp_send(p2.u, "", 0, &p1.addr));
    run(1);
    CHECK_EQ(2, p1.got);
    CHECK_EQ(0, p1.len);
    CHECK_ERR(NETIO_EMSGSIZE, netio_udp_send(p2.u, big, 65508, &p1.addr));
    netio_udp_close(p1.u);
    run(1);
    memset(&o, 0, sizeof o);
    o.user = &p1;
    o.datagram_max = 65536;
    CHECK_OK(netio_udp_open(&p1.u, w.loops[0], "10.0.0.1:53", &udp_handler, &o));
    CHECK_OK(netio_udp_send(p2.u, big, 65507, &p1.addr));
    run(1);
    CHECK_EQ(65507, p1.len);
    CHECK(!p1.truncated);
    over();
}

TEST(network, a_receiver_that_does_not_read_loses_datagrams_and_no_memory)
{
    two_points(NULL);
    CHECK_OK(netio_udp_pause(p1.u));
    long long before = test_bytes();
    for (int n = 0; n < 10000; n++) {
        send_number(&p2, n, &p1.addr);
        if (n % 64 == 0) run(1);
    }
    run(10);
    if (before >= 0) CHECK_BETWEEN(0, 12 << 20, test_bytes() - before);
    CHECK_OK(netio_udp_resume(p1.u));
    run(10);
    CHECK_BETWEEN(1000, 9999, p1.got);
    CHECK_EQ(1, p1.seen[0]); // the first are kept
    over();
}

TEST(network, a_sender_that_is_too_fast_is_held_back)
{
    static char data[1000];
    netio_link l = link_of(0, 100000);
    two_points(&l);
    int taken = 0, err = 0;
    while ((err = netio_udp_send(p2.u, data, sizeof data, &p1.addr)) == 0) {
        taken++;
        run(0);
        CHECK(taken < 2000);
    }
    CHECK_ERR(NETIO_ENOBUFS, err);
    CHECK_BETWEEN(800, 970,
                  taken); // 1 MiB in the network with 512 for each, and what is queued here
    run(20000);
    CHECK_EQ(taken, p1.got);
    CHECK_EQ(1, p2.drained);
    over();
}

//================================================================================================
// Several loops
//================================================================================================

// A message goes round four hosts.
static int pass_on(end *e)
{
    static const char *const next[] = {"10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.0.1:80"};
    static end out[64];
    for (int i = 0; i < LOOPS; i++) {
        if (netio_conn_loop(e->c) != w.loops[i]) continue;
        if (w.count >= 21) return 0;
        end *o = &out[w.count];
        memset(o, 0, sizeof *o);
        o->total = 1;
        dial_from(w.loops[i], o, next[i]);
    }
    return 0;
}

static void on_ring_open(netio_conn c)
{
    end *e = end_of(c);
    e->then = pass_on;
}

static const netio_handler ring = {
    .on_open = on_ring_open, .on_data = on_data, .on_close = on_close};

TEST(network, several_loops_reach_each_other)
{
    netio_link l = link_of(10, 0);
    end first;
    memset(&first, 0, sizeof first);
    first.total = 1;
    world(1, &l);
    for (int i = 0; i < 4; i++) {
        char host[24], addr[32];
        snprintf(host, sizeof host, "10.0.0.%d", i + 1);
        snprintf(addr, sizeof addr, "%s:80", host);
        CHECK_OK(netio_listener_open(NULL, join(i, host), addr, &ring, NULL));
    }
    dial_from(w.loops[3], &first, "10.0.0.1:80");
    uint64_t start = now();
    run(1000);
    CHECK_EQ(21, w.count);
    CHECK_EQ(1000000, now() - start);
    for (int i = 0; i < 21; i++) {
        CHECK_EQ(1, w.ends[i].got);
        CHECK_EQ(30000 * (i + 1), w.ends[i].got_us - start);
    }
    over();
}

TEST(network, a_listener_shares_its_clients_out)
{
    netio_listener_opts o;
    end a[9];
    memset(a, 0, sizeof a);
    memset(&o, 0, sizeof o);
    world(1, &rough);
    for (int i = 0; i < 3; i++) join(i, NULL);
    o.workers = w.loops;
    o.worker_count = 3;
    w.echo = true;
    CHECK_OK(netio_listener_open(&w.l, w.loops[0], "127.0.0.1:80", &handler, &o));
    for (int i = 0; i < 9; i++) {
        a[i].total = 5000;
        a[i].shut = true;
        dial_from(w.loops[i % 3], &a[i], "127.0.0.1:80");
    }
    run(60000);
    CHECK_EQ(9, w.count);
    int of[3] = {0, 0, 0};
    for (int i = 0; i < 9; i++)
        for (int k = 0; k < 3; k++) of[k] += w.ends[i].loop == w.loops[k];
    for (int k = 0; k < 3; k++) CHECK_EQ(3, of[k]);
    for (int i = 0; i < 9; i++) {
        CHECK_EQ(5000, a[i].got);
        CHECK_OK(a[i].err);
    }
    over();
}

// The child's copy goes without a word; the parent's lives on.
TEST(network, a_forked_child_frees_its_copy)
{
#ifdef _WIN32
    SKIP("no fork on Windows");
#else
    end a;
    int status = -1;
    memset(&a, 0, sizeof a);
    long blocks = test_blocks();
    two(1, &rough);
    a.total = 50000;
    a.shut = w.echo = true;
    dial(&a);
    point_open(&p1, w.loops[0], ":53", NULL);
    send_number(&p1, 1, &p1.addr);
    run(50);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 2; i++) netio_loop_destroy_after_fork(w.loops[i]);
        _exit(netio_network_destroy(w.net) || test_blocks() != blocks || a.closed);
    }
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQ(0, status);
    run(10000);
    CHECK_EQ(50000, a.got);
    CHECK_OK(a.err);
    over();
#endif
}

static void stop_it(void *user) { netio_loop_stop((netio_loop *)user); }

TEST(network, a_stop_ends_the_run)
{
    int ticks = 0;
    world(1, NULL);
    join(0, NULL);
    join(1, NULL);
    CHECK_OK(netio_timer_every(NULL, w.loops[0], 10, tick, &ticks));
    CHECK_OK(netio_timer_once(NULL, w.loops[1], 55, stop_it, w.loops[1]));
    uint64_t start = now();
    run(-1);
    CHECK_EQ(55000, now() - start);
    CHECK_EQ(5, ticks);
    run(45); // and it can go on
    CHECK_EQ(10, ticks);
    CHECK_OK(netio_timer_once(NULL, w.loops[1], 20, stop_it, w.loops[1]));
    CHECK_OK(netio_loop_run(w.loops[1])); // the other's ticks meanwhile
    CHECK_EQ(12, ticks);
    over();
}

TEST(network, a_run_ends_when_nothing_is_left_that_could_happen)
{
    end a;
    memset(&a, 0, sizeof a);
    a.total = 1000;
    a.shut = true;
    two(1, NULL);
    dial(&a);
    run(-1); // the listener waits for ever, but nobody is left who could come
    CHECK_EQ(1, a.closed);
    CHECK_OK(netio_loop_run(w.loops[0]));
    over();
}

static netio_loop *victim;

static void destroy_victim(void *user)
{
    (void)user;
    CHECK_OK(netio_loop_destroy(victim));
    for (int i = 0; i < LOOPS; i++)
        if (w.loops[i] == victim) w.loops[i] = NULL;
}

static void try_everything(void *user)
{
    netio_loop *own = (netio_loop *)user;
    CHECK_ERR(NETIO_EBUSY, netio_network_run(w.net, 1));
    CHECK_ERR(NETIO_EBUSY, netio_network_destroy(w.net));
    CHECK_ERR(NETIO_EBUSY, netio_loop_run(own));
    CHECK_ERR(NETIO_EBUSY, netio_loop_run(w.loops[0]));
    CHECK_ERR(NETIO_EBUSY, netio_loop_run_once(w.loops[0], 1));
    CHECK_ERR(NETIO_EBUSY, netio_loop_destroy(own));
    join(3, "10.0.0.4"); // a loop may come meanwhile
    CHECK_OK(netio_timer_once(NULL, w.loops[3], 5, tick, &w.count));
}

TEST(network, loops_come_and_go_while_it_runs)
{
    for (int i = 0; i < 3; i++) {
        world(1, NULL);
        for (int k = 0; k < 3; k++) join(k, NULL);
        CHECK_OK(netio_timer_once(NULL, w.loops[1], 10, try_everything, w.loops[1]));
        victim = w.loops[i];
        CHECK_OK(netio_timer_once(NULL, w.loops[(i + 1) % 3], 20, destroy_victim, NULL));
        run(100);
        CHECK_EQ(1, w.count);
        CHECK(w.loops[i] == NULL);
        over();
    }
}

TEST(network, misuse_is_refused)
{
    netio_network *net = NULL;
    netio_network_opts o;
    netio_loop_opts lo;
    netio_loop *loop;
    netio_link l = link_of(0, 0);
    end a;
    netio_socket s;
    memset(&o, 0, sizeof o);
    memset(&lo, 0, sizeof lo);
    memset(&a, 0, sizeof a);
    CHECK_ERR(NETIO_EINVAL, netio_network_create(NULL, NULL));
    o.link.latency_ms = -1;
    CHECK_ERR(NETIO_EINVAL, netio_network_create(&net, &o));
    o.link.latency_ms = 0;
    o.link.loss_permille = 1001;
    CHECK_ERR(NETIO_EINVAL, netio_network_create(&net, &o));
    CHECK_OK(netio_network_destroy(NULL));
    two(1, NULL);
    CHECK_ERR(NETIO_EBUSY, netio_network_destroy(w.net));
    l.jitter_ms = -1;
    CHECK_ERR(NETIO_EINVAL, netio_network_link(w.net, NULL, NULL, &l));
    l.jitter_ms = 0;
    CHECK_ERR(NETIO_EINVAL, netio_network_link(w.net, "example.com", NULL, &l));
    CHECK_ERR(NETIO_EINVAL, netio_network_link(w.net, NULL, NULL, NULL));
    lo.network = w.net;
    lo.host = "server";
    CHECK_ERR(NETIO_EINVAL, netio_loop_create(&loop, &lo));
    lo.host = "0.0.0.0";
    CHECK_ERR(NETIO_EINVAL, netio_loop_create(&loop, &lo));

    dial(&a);
    run(1);
    CHECK_ERR(NETIO_ENOTSUP, netio_conn_socket(a.c, &s)); // no real descriptors
    CHECK_ERR(NETIO_ENOTSUP, netio_listener_socket(w.l, &s));
    CHECK_ERR(NETIO_ENOTSUP, netio_conn_detach(a.c, &s, NULL, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_conn_adopt(NULL, w.loops[0], (netio_socket)0, &handler, NULL));
    CHECK_ERR(NETIO_ENOTSUP, netio_watch_start(NULL, w.loops[0], (netio_socket)0, NETIO_EV_READ,
                                               NULL, NULL) == NETIO_EINVAL
                                 ? NETIO_ENOTSUP
                                 : 0);
    CHECK_ERR(NETIO_EAFNOSUPPORT, netio_listener_open(NULL, w.loops[0], "unix:x", &handler, NULL));
    over();
}

//================================================================================================
// Memory
//================================================================================================

// The n-th allocation fails, for every n. Whatever happens has a name, and nothing is left behind.
TEST(network, no_memory_has_a_name)
{
    long blocks = test_blocks();
    int named = 0;
    for (long n = 1; n < 400; n++) {
        netio_network *net;
        netio_loop_opts o;
        end a;
        point *p = &p1;
        memset(&w, 0, sizeof w);
        memset(&o, 0, sizeof o);
        memset(&a, 0, sizeof a);
        a.total = 30000;
        a.shut = true;
        test_alloc_fail_at(n);
        int err = netio_network_create(&net, NULL);
        if (err == 0) {
            w.net = net;
            w.echo = w.may_lack = true;
            o.network = net;
            for (int i = 0; i < 2 && err == 0; i++) err = netio_loop_create(&w.loops[i], &o);
            if (err == 0) err = netio_network_link(net, NULL, NULL, &rough);
            if (err == 0) err = netio_network_name(net, "name.test", "127.0.0.1");
            if (err == 0)
                err = netio_listener_open(&w.l, w.loops[0], "127.0.0.1:80", &handler, NULL);
            netio_dial_opts dopts;
            memset(&dopts, 0, sizeof dopts);
            dopts.conn.user = &a;
            if (err == 0) err = netio_conn_dial(&a.c, w.loops[1], "name.test:80", &handler, &dopts);
            if (err == 0) {
                netio_udp_opts u;
                netio_addr to;
                memset(&u, 0, sizeof u);
                memset(p, 0, sizeof *p);
                u.user = p;
                err = netio_udp_open(&p->u, w.loops[0], "127.0.0.1:53", &udp_handler, &u);
                CHECK_OK(netio_addr_parse(&to, "127.0.0.1:53", 12));
                for (int i = 0; i < 5 && err == 0; i++) err = netio_udp_send(p->u, "12345", 5, &to);
                int ran = netio_network_run(net, 60000);
                if (err == 0) err = ran;
                CHECK_EQ(1, a.closed);
                if (a.err == 0 && err == 0 && a.got != a.total)
                    test_fail(__FILE__, __LINE__, "bytes lost without a word at allocation %ld", n);
                if (err == 0) err = a.err;
            }
        }
        test_alloc_fail_at(0);
        named += err < 0;
        for (int i = 0; i < 2; i++) CHECK_OK(netio_loop_destroy(w.loops[i]));
        CHECK_OK(netio_network_destroy(w.net));
        CHECK_EQ(blocks, test_blocks());
    }
    CHECK(named > 10);
}

TEST(network, connections_leave_nothing_behind)
{
    long long before = 0;
    two(1, &rough);
    for (int round = 0; round < 40; round++) {
        end a[20];
        memset(a, 0, sizeof a);
        w.count = 0;
        memset(w.ends, 0, sizeof w.ends);
        for (int i = 0; i < 20; i++) {
            a[i].total = 3000;
            a[i].shut = i % 3 != 0;
            dial(&a[i]);
        }
        run(200);
        for (int i = 0; i < 20; i++) {
            if (i % 3 == 0) CHECK_OK(netio_conn_abort(a[i].c));
        }
        run(3000);
        for (int i = 0; i < 20; i++) CHECK_EQ(1, a[i].closed);
        if (round == 3) before = test_bytes();
    }
    if (before >= 0) CHECK_BETWEEN(-1000000, 100000, test_bytes() - before);
    over();
}

//================================================================================================
// Pairs
//================================================================================================

static end pair_ends[2];

static void pair_open(netio_loop *loop, const netio_link *link)
{
    netio_conn out[2];
    netio_pair_opts o;
    memset(pair_ends, 0, sizeof pair_ends);
    memset(&o, 0, sizeof o);
    if (link) o.link = *link;
    o.a.user = &pair_ends[0];
    o.b.user = &pair_ends[1];
    CHECK_OK(netio_conn_pair(out, loop, &handler, &handler, &o));
    for (int i = 0; i < 2; i++) pair_ends[i].c = out[i];
}

TEST(pair, on_a_network)
{
    netio_link l = link_of(30, 0);
    world(1, NULL);
    join(0, NULL);
    pair_open(w.loops[0], &l);
    pair_ends[0].total = 10000;
    pair_ends[0].shut = pair_ends[1].echo = true;
    uint64_t start = now();
    run(1000);
    CHECK_EQ(10000, pair_ends[0].got);
    CHECK_EQ(60000, pair_ends[0].got_us - start);
    CHECK_EQ(1, pair_ends[0].closed);
    CHECK_EQ(1, pair_ends[1].closed);
    over();
}

static void real_on_open(netio_conn c)
{
    end *e = (end *)netio_conn_user(c);
    e->opened++;
    pump(e);
}

static void real_on_data(netio_conn c, const void *data, size_t len)
{
    end *e = (end *)netio_conn_user(c);
    for (size_t i = 0; i < len; i++) CHECK(((const unsigned char *)data)[i] == byte_at(e->got + i));
    e->got += len;
    e->pieces++;
    if (e->echo) CHECK_OK(netio_conn_write(c, data, len));
}

static void real_on_drain(netio_conn c) { pump((end *)netio_conn_user(c)); }

static void real_on_eof(netio_conn c)
{
    ((end *)netio_conn_user(c))->ended++;
    netio_conn_shutdown(c);
}

static void real_on_close(netio_conn c, int err)
{
    end *e = (end *)netio_conn_user(c);
    e->closed++;
    e->err = err;
}

static const netio_handler real_handler = {.on_open = real_on_open,
                                           .on_data = real_on_data,
                                           .on_drain = real_on_drain,
                                           .on_eof = real_on_eof,
                                           .on_close = real_on_close};

TEST(pair, on_a_loop_over_sockets)
{
    netio_loop *loop;
    netio_loop_opts lo;
    netio_pair_opts o;
    netio_conn out[2], side[2];
    end a[2], b[2];
    memset(&w, 0, sizeof w);
    memset(&lo, 0, sizeof lo);
    memset(&o, 0, sizeof o);
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    lo.backend = test_backend();
    CHECK_OK(netio_loop_create(&loop, &lo));
    a[0].total = 200000;
    a[0].shut = a[1].echo = true;
    o.a.user = &a[0];
    o.b.user = &a[1];
    o.a.read_always = true;
    o.link.latency_ms = 40;
    o.link.piece_max = 5000;
    uint64_t start = test_ms();
    CHECK_OK(netio_conn_pair(out, loop, &real_handler, &real_handler, &o));
    a[0].c = out[0];
    a[1].c = out[1];
    o.link.latency_ms = 0; // a second one, at the same time
    b[0].total = 1;
    o.a.user = &b[0];
    o.b.user = &b[1];
    CHECK_OK(netio_conn_pair(side, loop, &real_handler, &real_handler, &o));
    b[0].c = side[0];
    b[1].c = side[1];
    while (!b[1].got) CHECK(netio_loop_run_once(loop, 1000) >= 0);
    CHECK_OK(netio_conn_abort(side[0]));
    CHECK_OK(netio_loop_run(loop)); // ends by itself
    CHECK_EQ(200000, a[0].got);
    CHECK_BETWEEN(80, 10000, test_ms() - start); // there and back, on the real clock
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(1, a[i].closed);
        CHECK_OK(a[i].err);
        CHECK_EQ(1, b[i].closed);
    }
    CHECK_ERR(NETIO_ECONNABORTED, b[0].err);
    CHECK_ERR(NETIO_ECONNRESET, b[1].err);
    CHECK_OK(netio_loop_destroy(loop));
}

TEST(pair, dies_with_its_loop)
{
    netio_loop *loop;
    netio_loop_opts lo;
    netio_pair_opts o;
    end a[2];
    memset(&w, 0, sizeof w);
    memset(&lo, 0, sizeof lo);
    memset(&o, 0, sizeof o);
    memset(a, 0, sizeof a);
    lo.backend = test_backend();
    o.a.user = &a[0];
    o.b.user = &a[1];
    CHECK_OK(netio_loop_create(&loop, &lo));
    CHECK_OK(netio_conn_pair(NULL, loop, &real_handler, &real_handler, &o));
    o.link.loss_permille = -1;
    CHECK_ERR(NETIO_EINVAL, netio_conn_pair(NULL, loop, &real_handler, &real_handler, &o));
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_OK(netio_loop_destroy(loop));
    CHECK_ERR(NETIO_ECANCELED, a[0].err);
    CHECK_EQ(1, a[0].closed);
    CHECK_EQ(1, a[1].closed);
}

TEST_MAIN("network", T(network, an_idle_hour_takes_no_time), T(network, latency_is_exact),
          T(network, bandwidth_is_exact), T(network, each_connection_has_the_bandwidth_for_itself),
          T(network, window_bounds_what_is_under_way),
          T(network, timers_of_all_loops_run_in_order_of_time),
          T(network, same_bytes_over_every_link), T(network, one_seed_is_one_order_of_events),
          T(network, pieces_and_sends_are_of_random_sizes_up_to_their_limits),
          T(network, reset_at_is_exact), T(network, both_directions_may_be_reset_at_once),
          T(network, a_partition_stalls_connections_until_it_heals),
          T(network, links_that_change_lose_no_byte),
          T(network, links_differ_between_hosts_and_the_last_that_fits_counts),
          T(network, ends_arrive_after_all_bytes),
          T(network, an_abort_discards_what_waits_and_resets_the_peer), T(network, nobody_listens),
          T(network, the_backlog_is_bounded_and_those_beyond_come_late),
          T(network, closing_a_listener_resets_those_who_wait),
          T(network, a_loop_that_leaves_resets_its_peers), T(network, names_are_what_it_was_told),
          T(network, ports_are_taken_and_given_back), T(network, clients_ports_differ_and_run_out),
          T(network, both_families_and_any_interface),
          T(network, loopback_of_any_interface_is_of_one_host), T(network, a_host_may_be_ipv6),
          T(network, datagrams_come_in_batches_and_can_be_sent_back),
          T(network, datagrams_are_lost_doubled_and_overtaken_as_the_link_says),
          T(network, datagrams_last_as_long_as_the_bandwidth_says),
          T(network, datagrams_are_lost_in_a_partition),
          T(network, connected_endpoints_hear_of_nobody_and_of_nobody_else),
          T(network, datagrams_are_cut_to_the_slot_and_may_be_empty_or_large),
          T(network, a_receiver_that_does_not_read_loses_datagrams_and_no_memory),
          T(network, a_sender_that_is_too_fast_is_held_back),
          T(network, several_loops_reach_each_other), T(network, a_listener_shares_its_clients_out),
          T(network, a_forked_child_frees_its_copy), T(network, a_stop_ends_the_run),
          T(network, a_run_ends_when_nothing_is_left_that_could_happen),
          T(network, loops_come_and_go_while_it_runs), T(network, misuse_is_refused),
          T(network, no_memory_has_a_name), T(network, connections_leave_nothing_behind),
          T(pair, on_a_network), T(pair, on_a_loop_over_sockets), T(pair, dies_with_its_loop))
