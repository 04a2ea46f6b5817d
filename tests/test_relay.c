// BACKENDS: all memory
//
// netio_conn_relay: two connections joined, with back-pressure, half-close and errors in both
// directions; through the kernel where that is possible, by copy behind filters and rates. And
// netio_conn_pair, whose two ends it can join with others.
#include "engine.h"

//================================================================================================
// Client - (in, out) - server: four ends on one loop
//================================================================================================

typedef struct chain {
    netio_loop *loop;
    netio_loop_opts loop_opts;
    netio_listener front, back;
    netio_listener_opts front_opts, back_opts;
    netio_dial_opts client_opts, out_opts;
    char front_addr[NETIO_ADDR_TEXT], back_addr[NETIO_ADDR_TEXT];
    end client, in, out, server;
    netio_setting small[2];
    int result; // of netio_conn_relay
    bool early; // the client's first bytes are there before they are joined
} chain;

static void chain_init(chain *x) { memset(x, 0, sizeof *x); }

static void chain_small(chain *x)
{
    if (test_in_memory()) return;
    x->small[0].option = NETIO_OPT_SNDBUF;
    x->small[1].option = NETIO_OPT_RCVBUF;
    x->small[0].value = x->small[1].value = 16384;
    netio_socket_opts *all[4] = {&x->front_opts.socket, &x->back_opts.socket,
                                 &x->client_opts.socket, &x->out_opts.socket};
    for (int i = 0; i < 4; i++) {
        all[i]->settings = x->small;
        all[i]->setting_count = 2;
    }
}

static void listener_at(netio_listener *l, char addr[NETIO_ADDR_TEXT], netio_loop *loop,
                        netio_listener_opts *opts, end *e)
{
    netio_addr a;
    opts->conn.user = e;
    CHECK_OK(netio_listener_open(l, loop, test_loop_addr(), &end_all, opts));
    CHECK_OK(netio_listener_addr(*l, &a));
    CHECK(netio_addr_format(&a, addr, NETIO_ADDR_TEXT) > 0);
}

// All four are open, and in and out are not joined yet.
static void chain_open(chain *x)
{
    CHECK_OK(test_loop_create(&x->loop, &x->loop_opts));
    if (test_in_memory() && !test_rough()) {
        netio_link link = {0};
        link.window = 65536;
        test_link(&link);
    }
    listener_at(&x->front, x->front_addr, x->loop, &x->front_opts, &x->in);
    listener_at(&x->back, x->back_addr, x->loop, &x->back_opts, &x->server);
    x->client_opts.conn.user = &x->client;
    x->out_opts.conn.user = &x->out;
    CHECK_OK(netio_conn_dial(&x->client.c, x->loop, x->front_addr, &end_all, &x->client_opts));
    RUN_UNTIL(x->loop, x->client.opened && x->in.opened);
    CHECK_OK(CALL(netio_conn_pause(x->in.c)));
    CHECK_OK(netio_conn_dial(&x->out.c, x->loop, x->back_addr, &end_all, &x->out_opts));
    RUN_UNTIL(x->loop, x->out.opened && x->server.opened);
}

static void chain_join(chain *x)
{
    CHECK_OK(CALL(netio_conn_relay(x->in.c, x->out.c)));
    CHECK_OK(CALL(netio_conn_resume(x->in.c)));
}

static void chain_close(chain *x)
{
    end *all[4] = {&x->client, &x->in, &x->out, &x->server};
    test_loop_destroy(&x->loop);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(1, all[i]->closed);
        end_check(all[i]);
    }
}

static bool chain_over(const chain *x)
{
    return x->client.closed && x->in.closed && x->out.closed && x->server.closed;
}

// What goes from here to there.
static void send_stream(end *from, end *to, uint64_t len, uint32_t seed, char then)
{
    from->out_seed = to->seed = seed;
    from->out_len = len;
    from->then = then;
}

//================================================================================================
// Bytes and ends
//================================================================================================

enum { COPIES_RATE = 1, COPIES_FILTER = 2 };

static int xor_received(netio_filter_io *io, const void *data, size_t len)
{
    static unsigned char buf[1 << 18];
    const unsigned char *p = (const unsigned char *)data;
    for (size_t n; len > 0; p += n, len -= n) {
        n = len < sizeof buf ? len : sizeof buf;
        for (size_t i = 0; i < n; i++) buf[i] = p[i] ^ 0x77;
        int err = netio_filter_deliver(io, buf, n);
        if (err < 0) return err;
    }
    return 0;
}

static int xor_written(netio_filter_io *io, const netio_buf *bufs, size_t count)
{
    static unsigned char buf[1 << 16];
    for (size_t k = 0; k < count; k++) {
        const unsigned char *p = (const unsigned char *)bufs[k].data;
        for (size_t at = 0, n; at < bufs[k].len; at += n) {
            n = bufs[k].len - at < sizeof buf ? bufs[k].len - at : sizeof buf;
            for (size_t i = 0; i < n; i++) buf[i] = p[at + i] ^ 0x77;
            int err = netio_filter_emit(io, buf, n);
            if (err < 0) return err;
        }
    }
    return 0;
}

static const netio_filter_ops xor_ops = {
    .name = "xor", .received = xor_received, .written = xor_written};

static void both_ways(int copies, uint64_t there, uint64_t back)
{
    chain x;
    chain_init(&x);
    if (copies & COPIES_RATE) x.front_opts.conn.read_rate = x.out_opts.conn.write_rate = 500 << 20;
    if (copies & COPIES_FILTER) {
        x.out_opts.conn.filter.ops = &xor_ops;
        x.back_opts.conn.filter.ops = &xor_ops;
    }
    x.client_opts.conn.read_always = x.back_opts.conn.read_always = true;
    chain_open(&x);
    send_stream(&x.client, &x.server, there, 81, 's');
    send_stream(&x.server, &x.client, back, 82, 's');
    chain_join(&x);
    end_pump(&x.client);
    end_pump(&x.server);
    RUN_UNTIL(x.loop, chain_over(&x));
    CHECK_EQ(there, x.server.got);
    CHECK_EQ(back, x.client.got);
    CHECK_EQ(1, x.server.ended);
    CHECK_EQ(1, x.client.ended);
    CHECK_ERR(0, x.client.err);
    CHECK_ERR(0, x.in.err);
    CHECK_ERR(0, x.out.err);
    CHECK_ERR(0, x.server.err);
    CHECK_EQ(0, x.in.got + x.out.got); // their handlers see none of it
    CHECK_EQ(there, x.in.stats.bytes_in);
    CHECK_EQ(there, x.out.stats.bytes_out);
    CHECK_EQ(back, x.out.stats.bytes_in);
    CHECK_EQ(back, x.in.stats.bytes_out);
    chain_close(&x);
}

TEST(relay, carries_all_bytes_both_ways)
{
    both_ways(0, 1, 1);
    both_ways(0, 6000000, 6000000);
    both_ways(0, 3000000, 10);
    both_ways(0, 0, 2000000);
}

TEST(relay, copies_behind_a_filter) { both_ways(COPIES_FILTER, 2000000, 2000000); }
TEST(relay, copies_at_a_rate) { both_ways(COPIES_RATE, 2000000, 2000000); }

// One side ends early; the other direction finishes.
TEST(relay, half_close_leaves_the_other_direction)
{
    for (int who = 0; who < 2; who++) {
        chain x;
        chain_init(&x);
        chain_open(&x);
        end *early = who ? &x.server : &x.client, *late = who ? &x.client : &x.server;
        send_stream(early, late, 1000, 83, 's');
        send_stream(late, early, 3000000, 84, 's');
        chain_join(&x);
        end_pump(early);
        RUN_UNTIL(x.loop, late->ended);
        CHECK_EQ(1000, late->got);
        test_run_for(x.loop, 10);
        CHECK_EQ(0, x.in.closed + x.out.closed);
        end_pump(late);
        RUN_UNTIL(x.loop, chain_over(&x));
        CHECK_EQ(3000000, early->got);
        CHECK_ERR(0, x.in.err);
        CHECK_ERR(0, x.out.err);
        chain_close(&x);
    }
}

TEST(relay, bytes_from_before_come_first)
{
    chain x;
    chain_init(&x);
    chain_open(&x);
    send_stream(&x.client, &x.server, 200000, 85, 's');
    end_pump(&x.client); // in is paused: they wait in the kernel
    test_run_for(x.loop, 10);
    {
        char text[100];
        x.server.out_seed = x.client.seed = 86;
        stream_fill(text, 100, 86, 0);
        CHECK_OK(CALL(netio_conn_write(x.in.c, text, 100))); // and some in a queue
        stream_fill(text, 100, 86, 100);
        CHECK_OK(CALL(netio_conn_write(x.server.c, text, 100)));
    }
    chain_join(&x);
    RUN_UNTIL(x.loop, x.server.ended && x.client.got == 200);
    CHECK_EQ(200000, x.server.got);
    chain_close(&x);
}

// In on_data, bytes kept unread go to the other side, too.
static void join_in_data(end *e, int what, const void *data, size_t len)
{
    chain *x = (chain *)e->arg;
    (void)data;
    if (what != DATA || x->early) return;
    x->early = true;
    CHECK_OK(CALL(netio_conn_unread(e->c, len)));
    e->got -= len;
    CHECK_OK(CALL(netio_conn_relay(x->in.c, x->out.c)));
}

TEST(relay, unread_bytes_go_over)
{
    chain x;
    chain_init(&x);
    x.in.on = join_in_data;
    x.in.arg = &x;
    chain_open(&x);
    send_stream(&x.client, &x.server, 100000, 87, 's');
    end_pump(&x.client);
    CHECK_OK(CALL(netio_conn_resume(x.in.c)));
    RUN_UNTIL(x.loop, x.server.ended);
    CHECK_EQ(100000, x.server.got);
    CHECK_EQ(0, x.in.got);
    chain_close(&x);
}

TEST(relay, slow_reader_holds_the_writer_back)
{
    chain x;
    netio_stats s;
    chain_init(&x);
    chain_small(&x);
    chain_open(&x);
    send_stream(&x.client, &x.server, 8000000, 88, 's');
    chain_join(&x);
    CHECK_OK(CALL(netio_conn_pause(x.server.c)));
    end_pump(&x.client);
    test_run_for(x.loop, 100);
    CHECK(netio_conn_pending(x.client.c) > 0); // the writer feels it
    CHECK_OK(netio_conn_stats(x.in.c, &s));
    CHECK(s.bytes_in < 4000000); // and what is under way is bounded
    CHECK_OK(CALL(netio_conn_resume(x.server.c)));
    RUN_UNTIL(x.loop, x.server.ended);
    CHECK_EQ(8000000, x.server.got);
    chain_close(&x);
}

//================================================================================================
// Errors
//================================================================================================

TEST(relay, reset_of_one_side_aborts_the_other)
{
    if (test_under("wine")) SKIP("Wine shows a reset as a clean end");
    for (int who = 0; who < 2; who++) {
        chain x;
        chain_init(&x);
        chain_open(&x);
        send_stream(&x.client, &x.server, 3000000, 89, 0);
        chain_join(&x);
        end_pump(&x.client);
        RUN_UNTIL(x.loop, x.server.got > 1000);
        CHECK_OK(CALL(netio_conn_abort(who ? x.server.c : x.client.c)));
        RUN_UNTIL(x.loop, chain_over(&x));
        const end *hit = who ? &x.out : &x.in, *other = who ? &x.in : &x.out;
        const end *far = who ? &x.client : &x.server;
        CHECK(hit->err == NETIO_ECONNRESET || hit->err == NETIO_EPIPE);
        CHECK_ERR(NETIO_ECONNABORTED, other->err);
        CHECK(far->err == NETIO_ECONNRESET || far->err == NETIO_EPIPE);
        CHECK_EQ(0, far->ended); // no clean end for what was cut
        chain_close(&x);
    }
}

TEST(relay, abort_or_close_of_one_side_ends_the_other)
{
    for (int how = 0; how < 2; how++) {
        chain x;
        chain_init(&x);
        x.front_opts.conn.close_timeout_ms = 50;
        chain_open(&x);
        chain_join(&x);
        CHECK_OK(CALL(netio_conn_write(x.client.c, "x", 1)));
        RUN_UNTIL(x.loop, x.server.got == 1);
        if (how) CHECK_OK(CALL(netio_conn_abort(x.in.c)));
        else CHECK_OK(CALL(netio_conn_close(x.in.c)));
        RUN_UNTIL(x.loop, x.in.closed || x.client.ended);
        RUN_UNTIL(x.loop, x.out.closed || x.server.ended);
        chain_close(&x);
    }
}

TEST(relay, timeouts_of_both_stay)
{
    chain x;
    chain_init(&x);
    x.front_opts.conn.idle_timeout_ms = 50;
    chain_open(&x);
    chain_join(&x);
    RUN_UNTIL(x.loop, x.in.timed_out >= 2); // on_timeout is still its handler's
    CHECK_EQ(NETIO_TIMEOUT_IDLE, x.in.which);
    CHECK_OK(CALL(netio_conn_write(x.client.c, "alive", 5)));
    RUN_UNTIL(x.loop, x.server.got == 5);
    netio_loop_finish(x.loop, 1000);
    RUN_UNTIL(x.loop, x.in.stopped && x.out.stopped); // and so is on_stop
    chain_close(&x);
}

TEST(relay, refuses_what_cannot_be_joined)
{
    chain x;
    netio_loop *other;
    duo d;
    chain_init(&x);
    chain_open(&x);
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_relay(x.in.c, x.in.c)));
    CHECK_OK(CALL(netio_conn_relay(x.in.c, x.out.c)));
    CHECK_ERR(NETIO_EBUSY, CALL(netio_conn_relay(x.in.c, x.out.c)));
    CHECK_ERR(NETIO_EBUSY, CALL(netio_conn_relay(x.out.c, x.client.c)));
    CHECK_ERR(NETIO_EBUSY, CALL(netio_conn_relay(x.client.c, x.in.c)));
    if (!test_in_memory()) {
        duo_init(&d); // of another loop
        duo_open(&d, &end_all, &end_all);
        CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_relay(x.client.c, d.a.c)));
        duo_close(&d);
    }
    (void)other;
    chain_close(&x);
}

//================================================================================================
// Pairs in memory, on any loop
//================================================================================================

typedef struct couple {
    netio_loop *loop;
    netio_pair_opts opts;
    netio_conn c[2];
    end e[2];
} couple;

static void couple_open(couple *p)
{
    netio_pair_opts opts = p->opts;
    CHECK_OK(test_loop_create(&p->loop, NULL));
    opts.a.user = &p->e[0];
    opts.b.user = &p->e[1];
    CHECK_OK(CALL(netio_conn_pair(p->c, p->loop, &end_all, &end_all, &opts)));
    p->e[0].c = p->c[0];
    p->e[1].c = p->c[1];
    CHECK_STR("", p->e[0].log);
    RUN_UNTIL(p->loop, p->e[0].opened && p->e[1].opened);
}

static void couple_close(couple *p)
{
    test_loop_destroy(&p->loop);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(1, p->e[i].closed);
        end_check(&p->e[i]);
    }
}

TEST(relay, pair_carries_bytes_both_ways)
{
    couple p;
    memset(&p, 0, sizeof p);
    p.opts.a.read_always = p.opts.b.read_always = true;
    couple_open(&p);
    send_stream(&p.e[0], &p.e[1], 1000000, 91, 's');
    send_stream(&p.e[1], &p.e[0], 700000, 92, 's');
    end_pump(&p.e[0]);
    end_pump(&p.e[1]);
    RUN_UNTIL(p.loop, p.e[0].closed && p.e[1].closed);
    CHECK_EQ(1000000, p.e[1].got);
    CHECK_EQ(700000, p.e[0].got);
    CHECK_ERR(0, p.e[0].err);
    CHECK_ERR(0, p.e[1].err);
    couple_close(&p);
}

TEST(relay, pair_obeys_its_link)
{
    couple p;
    memset(&p, 0, sizeof p);
    p.opts.link.latency_ms = 20;
    p.opts.link.piece_max = 7;
    couple_open(&p);
    uint64_t start = netio_loop_now_ms(p.loop);
    send_stream(&p.e[0], &p.e[1], 500, 93, 0);
    end_pump(&p.e[0]);
    RUN_UNTIL(p.loop, p.e[1].got == 500);
    CHECK_BETWEEN(19, 5000, netio_loop_now_ms(p.loop) - start);
    netio_socket s;
    CHECK_ERR(NETIO_ENOTSUP, netio_conn_socket(p.c[0], &s));
    CHECK_ERR(NETIO_ENOTSUP, netio_conn_detach(p.c[0], &s, NULL, 0));
    couple_close(&p);
}

TEST(relay, pair_has_back_pressure)
{
    couple p;
    memset(&p, 0, sizeof p);
    p.opts.link.window = 1000;
    couple_open(&p);
    CHECK_OK(CALL(netio_conn_pause(p.c[1])));
    send_stream(&p.e[0], &p.e[1], 300000, 94, 'c');
    end_pump(&p.e[0]);
    test_run_for(p.loop, 20);
    CHECK(netio_conn_pending(p.c[0]) == 0 || netio_conn_pending(p.c[0]) > 290000);
    CHECK_OK(CALL(netio_conn_resume(p.c[1])));
    RUN_UNTIL(p.loop, p.e[1].ended);
    CHECK_EQ(300000, p.e[1].got);
    CHECK_OK(CALL(netio_conn_close(p.c[1])));
    RUN_UNTIL(p.loop, p.e[0].closed);
    CHECK_ERR(0, p.e[0].err);
    couple_close(&p);
}

TEST(relay, pair_aborts)
{
    couple p;
    memset(&p, 0, sizeof p);
    couple_open(&p);
    CHECK_OK(CALL(netio_conn_abort(p.c[0])));
    RUN_UNTIL(p.loop, p.e[0].closed && p.e[1].closed);
    CHECK_ERR(NETIO_ECONNABORTED, p.e[0].err);
    CHECK_ERR(NETIO_ECONNRESET, p.e[1].err);
    couple_close(&p);
}

// A pair in memory joined with a connection of the loop's other engine.
TEST(relay, joins_a_pair_with_a_connection)
{
    duo d;
    netio_pair_opts opts;
    netio_conn c[2];
    end e[2];
    memset(e, 0, sizeof e);
    memset(&opts, 0, sizeof opts);
    duo_init(&d);
    duo_open(&d, &end_all, &end_all);
    opts.a.user = &e[0];
    opts.b.user = &e[1];
    CHECK_OK(CALL(netio_conn_pair(c, d.loop, &end_all, &end_all, &opts)));
    RUN_UNTIL(d.loop, e[0].opened && e[1].opened);
    send_stream(&d.a, &e[1], 500000, 95, 's');
    send_stream(&e[1], &d.a, 400000, 96, 's');
    CHECK_OK(CALL(netio_conn_relay(d.b.c, c[0])));
    end_pump(&d.a);
    RUN_UNTIL(d.loop, e[1].ended);
    end_pump(&e[1]);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed && e[0].closed && e[1].closed);
    CHECK_EQ(500000, e[1].got);
    CHECK_EQ(400000, d.a.got);
    duo_close(&d);
    end_check(&e[0]);
    end_check(&e[1]);
}

//================================================================================================

// clang-format off
TEST_MAIN("relay",
    T(relay, carries_all_bytes_both_ways),
    T(relay, copies_behind_a_filter),
    T(relay, copies_at_a_rate),
    T(relay, half_close_leaves_the_other_direction),
    T(relay, bytes_from_before_come_first),
    T(relay, unread_bytes_go_over),
    T(relay, slow_reader_holds_the_writer_back),
    T(relay, reset_of_one_side_aborts_the_other),
    T(relay, abort_or_close_of_one_side_ends_the_other),
    T(relay, timeouts_of_both_stay),
    T(relay, refuses_what_cannot_be_joined),
    T(relay, pair_carries_bytes_both_ways),
    T(relay, pair_obeys_its_link),
    T(relay, pair_has_back_pressure),
    T(relay, pair_aborts),
    T(relay, joins_a_pair_with_a_connection))
