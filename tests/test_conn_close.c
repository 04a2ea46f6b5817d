// BACKENDS: all memory
//
// How connections end, and what the peer has by then: close loses no byte, half-close leaves the
// other direction alone, a reset is an error on both sides. With the situations in which other
// libraries lose data.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "engine.h"

//================================================================================================
// Close
//================================================================================================

// Sends its stream when opened, then does what `then` says.
static void pump_at_open(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what == OPENED && e->out_len) end_pump(e);
}

TEST(conn_close, queue_leaves_before_the_end)
{
    static const uint64_t sizes[] = {1, 1000, 65536, 1000000, 5000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        duo d;
        duo_init(&d);
        d.small = i % 2 ? 16384 : 0;
        d.a.on = pump_at_open;
        d.a.out_seed = d.b.seed = 31;
        d.a.out_len = sizes[i];
        d.a.then = 'c';
        duo_start(&d, &end_plain, &end_all);
        RUN_UNTIL(d.loop, d.b.ended);
        CHECK_EQ(sizes[i], d.b.got);
        CHECK_EQ(0, d.a.closed); // it waits for the peer's end
        CHECK_OK(CALL(netio_conn_close(d.b.c)));
        RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
        CHECK_ERR(0, d.a.err);
        CHECK_ERR(0, d.b.err);
        duo_close(&d);
    }
}

TEST(conn_close, one_large_write_leaves_before_the_end)
{
    enum { LARGE = 3000000 };
    unsigned char *data = (unsigned char *)malloc(LARGE);
    duo d;
    CHECK(data != NULL);
    stream_fill(data, LARGE, 32, 0);
    duo_init(&d);
    d.b.seed = 32;
    duo_open(&d, &end_plain, &end_plain);
    CHECK_OK(CALL(netio_conn_write(d.a.c, data, LARGE)));
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    free(data);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(LARGE, d.b.got);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
}

// Situation (d): the reply is larger than all buffers and the request was not read to its end. A
// kernel that closes such a socket resets it and throws away what it still holds.
static void reply_and_close(end *e, int what, const void *data, size_t len)
{
    static unsigned char reply[3000000];
    (void)data, (void)len;
    if (what != DATA) return;
    stream_fill(reply, sizeof reply, 33, 0);
    CHECK_OK(CALL(netio_conn_write(e->c, reply, sizeof reply)));
    CHECK_OK(CALL(netio_conn_close(e->c)));
}

static void resume_it(void *user)
{
    end *e = (end *)user;
    if (!e->closed) netio_conn_resume(e->c);
}

static void read_later(end *e, int what, const void *data, size_t len)
{
    pump_at_open(e, what, data, len);
    if (what != OPENED) return;
    CHECK_OK(CALL(netio_conn_pause(e->c)));
    CHECK_OK(netio_timer_once(NULL, netio_conn_loop(e->c), 40, resume_it, e));
}

TEST(conn_close, reply_arrives_though_the_request_was_not_read)
{
    enum { CLIENTS = 10 };
    static end clients[CLIENTS], served[CLIENTS + 1];
    duo d;
    pool p;
    memset(&p, 0, sizeof p);
    memset(clients, 0, sizeof clients);
    p.kind = KIND_POOL;
    p.ends = served;
    p.cap = CLIENTS + 1;
    p.like.on = reply_and_close;
    duo_init(&d);
    d.listen.conn.user = &p;
    d.listen.conn.close_timeout_ms = 15000; // for slow machines
    d.dial.conn.read_always = true;         // it owes and reads at the same time
    d.dial.conn.write_queue_max = 2 << 20;
    duo_start(&d, &end_plain, &end_plain);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i].on = read_later;
        clients[i].out_len = 1000000;
        clients[i].piece = 50000;
        clients[i].seed = 33;
        duo_dial(&d, &clients[i], &end_plain);
    }
    for (int i = 0; i < CLIENTS; i++) {
        RUN_UNTIL(d.loop, clients[i].closed);
        CHECK_EQ(3000000, clients[i].got);
        CHECK_ERR(0, clients[i].err);
    }
    for (size_t i = 0; i < p.used; i++) {
        if (!served[i].got) continue;
        RUN_UNTIL(d.loop, served[i].closed);
        CHECK_ERR(0, served[i].err);
    }
    duo_close(&d);
}

// The same with a client that netio's loop knows nothing of.
typedef struct late_reader {
    char text[NETIO_ADDR_TEXT];
    uint64_t got;
    ptrdiff_t end;
    bool wrong;
    int done; // shared
} late_reader;

static void read_late(void *arg)
{
    late_reader *r = (late_reader *)arg;
    unsigned char *buf = (unsigned char *)calloc(1, 1000000);
    netio_socket s;
    size_t sent = 0;
    r->end = buf ? netio_connect(&s, r->text, NULL, 5000) : NETIO_ENOMEM;
    if (r->end == 0) {
        netio_send_all(s, buf, 1000000, &sent, 300); // as far as it gets: nobody reads all of it
        test_sleep_ms(30);
        for (;;) {
            r->end = netio_recv(s, buf, 100000, 10000);
            if (r->end <= 0) break;
            if (!stream_is(buf, (size_t)r->end, 33, r->got)) r->wrong = true;
            r->got += (uint64_t)r->end;
        }
        netio_close(&s);
    }
    free(buf);
    test_shared_add(&r->done, 1);
}

TEST(conn_close, reply_reaches_a_plain_socket_that_reads_late)
{
    static end served[11];
    late_reader r[3];
    test_thread t[3];
    duo d;
    pool p;
    if (test_in_memory()) SKIP("there are no sockets in memory");
    memset(&p, 0, sizeof p);
    p.kind = KIND_POOL;
    p.ends = served;
    p.cap = 11;
    p.like.on = reply_and_close;
    duo_init(&d);
    d.listen.conn.close_timeout_ms = 15000; // for slow machines
    d.listen.conn.user = &p;
    duo_start(&d, &end_plain, &end_plain);
    for (int i = 0; i < 3; i++) {
        memset(&r[i], 0, sizeof r[i]);
        memcpy(r[i].text, d.addr, sizeof d.addr);
        test_thread_start(&t[i], read_late, &r[i]);
    }
    for (int i = 0; i < 3; i++) RUN_UNTIL(d.loop, test_shared_get(&r[i].done));
    for (int i = 0; i < 3; i++) {
        test_thread_join(&t[i]);
        CHECK_EQ(3000000, r[i].got);
        CHECK_ERR(NETIO_EOF, r[i].end);
        CHECK(!r[i].wrong);
    }
    duo_close(&d);
}

// Situation (c): data, end and hang-up are all there when the client looks next.
static void sleep_at_open(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what != OPENED) return;
    CHECK_OK(CALL(netio_conn_write(e->c, "ask", 3)));
    CHECK_OK(CALL(netio_conn_shutdown(e->c)));
    CHECK_OK(CALL(netio_conn_flush(e->c)));
    if (e->arg) CHECK_OK(CALL(netio_conn_pause(e->c)));
}

static void answer_at_eof(end *e, int what, const void *data, size_t len)
{
    static unsigned char answer[60000];
    (void)data, (void)len;
    if (what != ENDED) return;
    stream_fill(answer, sizeof answer, 34, 0);
    CHECK_OK(CALL(netio_conn_write(e->c, answer, sizeof answer)));
    CHECK_OK(CALL(netio_conn_close(e->c)));
}

TEST(conn_close, answer_end_and_hang_up_at_once)
{
    for (int late = 0; late < 2; late++) {
        for (int i = 0; i < 20; i++) {
            duo d;
            duo_init(&d);
            d.a.on = sleep_at_open;
            d.a.arg = late ? &d : NULL;
            d.a.seed = 34;
            d.b.on = answer_at_eof;
            duo_start(&d, &end_all, &end_all);
            if (late) {
                RUN_UNTIL(d.loop, d.b.ended);
                test_run_for(d.loop, 5);
                CHECK_EQ(0, d.a.got);
                CHECK_OK(CALL(netio_conn_resume(d.a.c)));
            }
            RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
            CHECK_STR("odec", d.a.log);
            CHECK_EQ(60000, d.a.got);
            CHECK_ERR(0, d.a.err);
            CHECK_ERR(0, d.b.err);
            duo_close(&d);
        }
    }
}

// What the peer sends after close is dropped, and does no harm to what it still has to read.
TEST(conn_close, drops_what_comes_after_it)
{
    duo d;
    duo_init(&d);
    d.a.out_seed = d.b.seed = 35;
    d.a.out_len = 100000;
    d.a.then = 'c';
    duo_open(&d, &end_all, &end_all);
    end_pump(&d.a);
    for (int i = 0; i < 10; i++) {
        static char more[20000];
        CHECK_OK(CALL(netio_conn_write(d.b.c, more, sizeof more)));
        test_run_for(d.loop, 2);
    }
    RUN_UNTIL(d.loop, d.b.ended);
    CHECK_EQ(100000, d.b.got);
    CHECK_OK(CALL(netio_conn_close(d.b.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(0, d.a.got);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
}

TEST(conn_close, drops_a_bounded_amount)
{
    duo d;
    duo_init(&d);
    d.dial.conn.close_drain_max = 100000;
    d.b.out_len = 4000000;
    duo_open(&d, &end_all, &end_all);
    end_pump(&d.b);
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    CHECK_EQ(NETIO_STAGE_CLOSE, d.a.error.stage);
    CHECK(d.a.stats.bytes_in < 3000000);
    if (!d.b.closed) (void)CALL(netio_conn_write(d.b.c, "x", 1)); // then it notices at the latest
    RUN_UNTIL(d.loop, d.b.closed);
    check_reset(&d.b);
    duo_close(&d);
}

// Also while its own queue is stuck.
TEST(conn_close, drops_a_bounded_amount_behind_its_queue)
{
    duo d;
    duo_init(&d);
    d.small = 16384;
    d.loop_opts.recv_buffer = 16384;
    d.dial.conn.close_drain_max = 100000;
    d.dial.conn.write_timeout_ms = 200;
    d.a.out_len = 900000;
    d.a.then = 'c';
    d.b.out_len = 4000000;
    d.listen.conn.write_queue_max = 8 << 20;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    end_pump(&d.a);
    end_pump(&d.b);
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    CHECK_BETWEEN(1, 200000, d.a.stats.bytes_in);
    duo_close(&d);
}

TEST(conn_close, waits_a_bounded_time_for_the_peer)
{
    duo d;
    uint64_t start;
    duo_init(&d);
    d.dial.conn.close_timeout_ms = 60;
    d.a.out_seed = d.b.seed = 36;
    d.a.out_len = 5000;
    d.a.then = 'c';
    duo_open(&d, &end_all, &end_all); // the peer never closes
    end_pump(&d.a);
    start = netio_loop_now_ms(d.loop);
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_BETWEEN(59, 5000, netio_loop_now_ms(d.loop) - start);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    CHECK_EQ(NETIO_TIMEOUT_CLOSE, d.a.error.timeout);
    CHECK_EQ(5000, d.b.got); // it had all by then
    CHECK_EQ(1, d.b.ended);
    duo_close(&d);
}

TEST(conn_close, needs_nothing_more_once_the_peer_has_ended)
{
    duo d;
    duo_init(&d);
    d.b.out_len = 1000;
    d.b.then = 's';
    duo_open(&d, &end_all, &end_all);
    end_pump(&d.b);
    RUN_UNTIL(d.loop, d.a.ended);
    uint64_t start = netio_loop_now_ms(d.loop);
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    CHECK_EQ(0, d.a.closed);
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK(netio_loop_now_ms(d.loop) - start < 1000);
    CHECK_ERR(0, d.a.err);
    RUN_UNTIL(d.loop, d.b.closed); // it had ended, and now its peer has
    CHECK_STR("oec", d.b.log);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
}

TEST(conn_close, of_a_paused_connection_reads_for_itself)
{
    duo d;
    duo_init(&d);
    d.b.out_len = 500000;
    d.b.then = 'c';
    duo_open(&d, &end_all, &end_plain);
    CHECK_OK(CALL(netio_conn_pause(d.a.c)));
    end_pump(&d.b);
    test_run_for(d.loop, 10);
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(0, d.a.got);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
}

static void keep_all(end *e, int what, const void *data, size_t len)
{
    (void)data;
    if (what == DATA) CHECK_OK(CALL(netio_conn_unread(e->c, len)));
}

TEST(conn_close, with_unread_bytes_frees_them)
{
    duo d;
    duo_init(&d);
    d.a.on = keep_all;
    duo_open(&d, &end_all, &end_plain);
    CHECK_OK(CALL(netio_conn_write(d.b.c, "kept", 4)));
    RUN_UNTIL(d.loop, d.a.got > 0);
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_ERR(0, d.a.err);
    duo_close(&d);
}

// Both at once, with much on the way in both directions: both directions are whole as far as they
// were read, and both ends are clean.
TEST(conn_close, both_at_once_with_data_on_the_way)
{
    duo d;
    duo_init(&d);
    d.a.out_len = d.b.out_len = 200000;
    d.a.then = d.b.then = 'c';
    duo_open(&d, &end_plain, &end_plain);
    end_pump(&d.a);
    end_pump(&d.b);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    CHECK_EQ(200000, d.a.stats.bytes_in); // dropped, but read
    CHECK_EQ(200000, d.b.stats.bytes_in);
    duo_close(&d);
}

//================================================================================================
// Half-close
//================================================================================================

TEST(conn_close, half_close_leaves_the_other_direction_alone)
{
    for (int who = 0; who < 2; who++) {
        duo d;
        end *first = who ? &d.b : &d.a, *second = who ? &d.a : &d.b;
        duo_init(&d);
        first->out_seed = second->seed = 37;
        second->out_seed = first->seed = 38;
        first->out_len = 1500000;
        second->out_len = 1000000;
        first->then = second->then = 's';
        duo_open(&d, &end_all, &end_all);
        end_pump(first);
        RUN_UNTIL(d.loop, second->ended);
        CHECK_EQ(1500000, second->got);
        CHECK_EQ(0, first->ended);
        test_run_for(d.loop, 10);
        CHECK_EQ(0, first->closed);
        CHECK_ERR(NETIO_EPIPE, CALL(netio_conn_write(first->c, "x", 1)));
        CHECK_OK(CALL(netio_conn_shutdown(first->c))); // again: nothing new
        end_pump(second);
        RUN_UNTIL(d.loop, d.a.closed && d.b.closed); // by themselves: both have ended
        CHECK_EQ(1000000, first->got);
        CHECK_STR("odec", first->drained ? "odec" : first->log);
        CHECK_ERR(0, first->err);
        CHECK_ERR(0, second->err);
        duo_close(&d);
    }
}

TEST(conn_close, both_half_close_with_data_on_the_way)
{
    duo d;
    duo_init(&d);
    d.dial.conn.read_always = d.listen.conn.read_always = true;
    d.a.out_seed = d.b.seed = 39;
    d.b.out_seed = d.a.seed = 40;
    d.a.out_len = d.b.out_len = 1000000;
    d.a.then = d.b.then = 's';
    duo_open(&d, &end_all, &end_all);
    end_pump(&d.a);
    end_pump(&d.b);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(1000000, d.a.got);
    CHECK_EQ(1000000, d.b.got);
    CHECK_EQ(1, d.a.ended);
    CHECK_EQ(1, d.b.ended);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
}

// Without on_eof the connection is closed when the peer ends, after its queue.
TEST(conn_close, end_without_on_eof_closes_after_the_queue)
{
    duo d;
    duo_init(&d);
    d.small = 16384;
    d.b.out_seed = d.a.seed = 41;
    d.b.out_len = 900000;
    duo_open(&d, &end_all, &end_plain);
    CHECK_OK(CALL(netio_conn_pause(d.a.c)));
    end_pump(&d.b);
    CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
    test_run_for(d.loop, 10);
    CHECK_EQ(0, d.b.closed);
    CHECK_OK(CALL(netio_conn_resume(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(900000, d.a.got);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    CHECK_EQ(0, d.b.ended);
    duo_close(&d);
}

TEST(conn_close, shutdown_before_open_ends_after_the_queue)
{
    duo d;
    duo_init(&d);
    d.b.echo = true;
    d.a.seed = 42;
    duo_start(&d, &end_all, &end_plain);
    {
        char text[10];
        stream_fill(text, sizeof text, 42, 0);
        CHECK_OK(CALL(netio_conn_write(d.a.c, text, sizeof text)));
    }
    CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
    CHECK_ERR(NETIO_EPIPE, CALL(netio_conn_write(d.a.c, "x", 1)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_STR("odec", d.a.log);
    CHECK_EQ(10, d.a.got);
    duo_close(&d);
}

//================================================================================================
// Reset
//================================================================================================

TEST(conn_close, reset_during_write)
{
    for (int i = 0; i < 3; i++) {
        duo d;
        netio_stats l;
        duo_init(&d);
        d.small = 16384;
        d.dial.conn.write_queue_max = 8 << 20;
        d.a.out_len = 4000000;
        duo_open(&d, &end_all, &end_all);
        if (i == 1) CHECK_OK(CALL(netio_conn_pause(d.a.c)));    // it notices by writing
        if (i == 2) CHECK_OK(CALL(netio_conn_shutdown(d.b.c))); // and after the peer's end
        end_pump(&d.a);
        RUN_UNTIL(d.loop, d.b.got > 100000);
        CHECK_OK(CALL(netio_conn_abort(d.b.c)));
        CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_write(d.b.c, "x", 1)));
        RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
        check_reset(&d.a);
        CHECK(d.a.error.stage == NETIO_STAGE_WRITE || d.a.error.stage == NETIO_STAGE_READ);
        CHECK_ERR(NETIO_ECONNABORTED, d.b.err);
        test_run_for(d.loop, 1);
        netio_loop_stats(d.loop, &l);
        CHECK_EQ(0, l.active);
        duo_close(&d);
    }
}

TEST(conn_close, abort_resets_at_once_whatever_is_queued)
{
    duo d;
    duo_init(&d);
    d.small = 16384;
    d.a.out_len = 900000;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    end_pump(&d.a);
    test_run_for(d.loop, 5);
    CHECK(netio_conn_pending(d.a.c) > 0);
    CHECK_OK(CALL(netio_conn_abort(d.a.c)));
    CHECK_EQ(0, d.a.closed); // not from inside
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_ERR(NETIO_ECONNABORTED, d.a.err);
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, end_lost(&d.b));
    check_reset(&d.b);
    CHECK(d.b.got < 900000);
    if (!test_under("wine")) CHECK_EQ(0, d.b.ended);
    duo_close(&d);
}

// A peer that resets although its FIN was read: nothing spins, the end is told once.
TEST(conn_close, reset_after_the_end)
{
    duo d;
    netio_stats before, after;
    duo_init(&d);
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_shutdown(d.b.c)));
    RUN_UNTIL(d.loop, d.a.ended);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "unread", 6)));
    test_run_for(d.loop, 5);
    CHECK_OK(CALL(netio_conn_abort(d.b.c)));
    RUN_UNTIL(d.loop, d.b.closed);
    test_run_for(d.loop, 10);
    netio_loop_stats(d.loop, &before);
    test_run_for(d.loop, 50);
    netio_loop_stats(d.loop, &after);
    CHECK_BETWEEN(0, 10, after.turns - before.turns);
    if (!d.a.closed) CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed);
    duo_close(&d);
}

// Reset after so many bytes by the network itself.
TEST(conn_close, network_resets_at_a_byte)
{
    duo d;
    netio_link link = {0};
    if (!test_in_memory()) SKIP("only the network in memory can be told so");
    duo_init(&d);
    d.a.out_seed = d.b.seed = 43;
    d.a.out_len = 900000;
    CHECK(test_network() != NULL);
    link.reset_at = 123456;
    test_link(&link);
    duo_open(&d, &end_all, &end_all);
    end_pump(&d.a);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_ERR(NETIO_ECONNRESET, d.a.err);
    CHECK_ERR(NETIO_ECONNRESET, d.b.err);
    CHECK(d.b.got <= 123456);
    duo_close(&d);
}

// Situation (b): a refused connect is said to be refused. More of it in test_dial.
TEST(conn_close, refused_is_refused)
{
    netio_loop *loop;
    netio_dial_opts opts;
    char addr[NETIO_ADDR_TEXT];
    end e;
    memset(&e, 0, sizeof e);
    memset(&opts, 0, sizeof opts);
    CHECK_OK(test_loop_create(&loop, NULL));
    closed_port(loop, addr);
    opts.conn.user = &e;
    CHECK_OK(CALL(netio_conn_dial(&e.c, loop, addr, &end_all, &opts)));
    CHECK_OK(CALL(netio_conn_write(e.c, "never sent", 10)));
    RUN_UNTIL(loop, e.closed);
    CHECK_STR("c", e.log);
    CHECK_ERR(NETIO_ECONNREFUSED, e.err);
    CHECK_EQ(NETIO_STAGE_CONNECT, e.error.stage);
    test_loop_destroy(&loop);
    end_check(&e);
}

//================================================================================================

// clang-format off
TEST_MAIN("conn_close",
    T(conn_close, queue_leaves_before_the_end),
    T(conn_close, one_large_write_leaves_before_the_end),
    T(conn_close, reply_arrives_though_the_request_was_not_read),
    T(conn_close, reply_reaches_a_plain_socket_that_reads_late),
    T(conn_close, answer_end_and_hang_up_at_once),
    T(conn_close, drops_what_comes_after_it),
    T(conn_close, drops_a_bounded_amount),
    T(conn_close, drops_a_bounded_amount_behind_its_queue),
    T(conn_close, waits_a_bounded_time_for_the_peer),
    T(conn_close, needs_nothing_more_once_the_peer_has_ended),
    T(conn_close, of_a_paused_connection_reads_for_itself),
    T(conn_close, with_unread_bytes_frees_them),
    T(conn_close, both_at_once_with_data_on_the_way),
    T(conn_close, half_close_leaves_the_other_direction_alone),
    T(conn_close, both_half_close_with_data_on_the_way),
    T(conn_close, end_without_on_eof_closes_after_the_queue),
    T(conn_close, shutdown_before_open_ends_after_the_queue),
    T(conn_close, reset_during_write),
    T(conn_close, abort_resets_at_once_whatever_is_queued),
    T(conn_close, reset_after_the_end),
    T(conn_close, network_resets_at_a_byte),
    T(conn_close, refused_is_refused))
