// BACKENDS: all memory
//
// Limits of time and rate of connections, and the graceful stop of a loop. Lower bounds are exact,
// on the loop's own clock; upper ones are wide. Defaults of many seconds are tried in memory, where
// time is virtual.
#include "engine.h"

static uint64_t now(const duo *d) { return netio_loop_now_ms(d->loop); }

//================================================================================================
// Idle
//================================================================================================

TEST(conn_time, idle_is_told_again_and_again)
{
    duo d;
    uint64_t start;
    duo_init(&d);
    d.dial.conn.idle_timeout_ms = 30;
    duo_open(&d, &end_all, &end_all);
    start = now(&d);
    for (int i = 1; i <= 3; i++) {
        RUN_UNTIL(d.loop, d.a.timed_out == i);
        CHECK(now(&d) - start >= (unsigned)(30 * i - 5));
        CHECK_EQ(NETIO_TIMEOUT_IDLE, d.a.which);
    }
    CHECK_BETWEEN(0, 5000, now(&d) - start);
    CHECK_EQ(0, d.b.timed_out); // it has no limit
    CHECK_OK(CALL(netio_conn_write(d.a.c, "alive", 5)));
    RUN_UNTIL(d.loop, d.b.got == 5);
    duo_close(&d);
}

TEST(conn_time, idle_without_on_timeout_aborts)
{
    duo d;
    uint64_t start;
    duo_init(&d);
    d.dial.conn.idle_timeout_ms = 40;
    duo_open(&d, &end_plain, &end_all);
    start = now(&d);
    RUN_UNTIL(d.loop, d.a.closed && end_lost(&d.b));
    CHECK_BETWEEN(35, 5000, now(&d) - start);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    CHECK_EQ(NETIO_TIMEOUT_IDLE, d.a.error.timeout);
    check_reset(&d.b);
    duo_close(&d);
}

static uint64_t said_ms, longest_silence; // a busy machine may be late

static void say_something(void *user)
{
    end *e = (end *)user;
    uint64_t silence = test_ms() - said_ms;
    if (silence > longest_silence) longest_silence = silence;
    said_ms += silence;
    netio_conn_write(e->c, ".", 1);
}

TEST(conn_time, activity_either_way_keeps_idle_away)
{
    for (int who = 0; who < 2; who++) {
        duo d;
        netio_timer t;
        uint64_t start;
        duo_init(&d);
        d.dial.conn.idle_timeout_ms = 150;
        duo_open(&d, &end_plain, &end_all);
        start = now(&d);
        said_ms = test_ms();
        longest_silence = 0;
        CHECK_OK(netio_timer_every(&t, d.loop, 20, say_something, who ? &d.a : &d.b));
        test_run_for(d.loop, 500);
        if (longest_silence < 100) CHECK_EQ(0, d.a.closed);
        netio_timer_stop(t);
        RUN_UNTIL(d.loop, d.a.closed);
        CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
        CHECK(now(&d) - start >= 600);
        duo_close(&d);
    }
}

TEST(conn_time, idle_can_be_changed)
{
    duo d;
    duo_init(&d);
    duo_open(&d, &end_all, &end_all);
    uint64_t start = now(&d);
    CHECK_OK(CALL(netio_conn_set_timeout(d.a.c, NETIO_TIMEOUT_IDLE, 30)));
    RUN_UNTIL(d.loop, d.a.timed_out == 1);
    CHECK(now(&d) - start >= 29);
    CHECK_OK(CALL(netio_conn_set_timeout(d.a.c, NETIO_TIMEOUT_IDLE, 0))); // none, as by default
    test_run_for(d.loop, 100);
    CHECK_BETWEEN(1, 2, d.a.timed_out);
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_set_timeout(d.a.c, 0, 10)));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_set_timeout(d.a.c, 99, 10)));
    duo_close(&d);
}

//================================================================================================
// A peer that takes nothing
//================================================================================================

// A connection whose queue is stuck: the peer does not read.
static void stuck(duo *d, const netio_handler *a, int write_timeout_ms)
{
    duo_init(d);
    d->small = 16384;
    d->dial.conn.write_timeout_ms = write_timeout_ms;
    d->dial.conn.write_queue_max = 4 << 20;
    duo_open(d, a, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d->b.c)));
    static char much[1000000];
    CHECK_OK(CALL(netio_conn_write(d->a.c, much, sizeof much)));
}

TEST(conn_time, stuck_queue_is_told)
{
    duo d;
    stuck(&d, &end_all, 60);
    uint64_t start = now(&d);
    for (int i = 1; i <= 3; i++) {
        RUN_UNTIL(d.loop, d.a.timed_out == i);
        CHECK(now(&d) - start >= (unsigned)(59 * i));
        CHECK_EQ(NETIO_TIMEOUT_WRITE, d.a.which);
        CHECK(netio_conn_pending(d.a.c) > 0);
    }
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, d.b.got == 1000000); // nothing was lost by it
    test_run_for(d.loop, 150);
    CHECK_BETWEEN(3, 4, d.a.timed_out); // an empty queue is not stuck
    duo_close(&d);
}

TEST(conn_time, stuck_queue_without_on_timeout_aborts)
{
    duo d;
    stuck(&d, &end_plain, 50);
    uint64_t start = now(&d);
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_BETWEEN(49, 5000, now(&d) - start);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    CHECK_EQ(NETIO_TIMEOUT_WRITE, d.a.error.timeout);
    CHECK_EQ(NETIO_STAGE_WRITE, d.a.error.stage);
    duo_close(&d);
}

TEST(conn_time, close_of_a_stuck_queue_ends)
{
    duo d;
    stuck(&d, &end_all, 50);
    uint64_t start = now(&d);
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_BETWEEN(49, 5000, now(&d) - start);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    CHECK_EQ(0, d.a.timed_out); // it is closing: nothing but on_close
    duo_close(&d);
}

static void read_a_little(void *user)
{
    end *e = (end *)user;
    if (netio_conn_resume(e->c) == 0) e->arg = e; // it pauses again at the next piece
}

static void pause_again(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what == DATA) CHECK_OK(CALL(netio_conn_pause(e->c)));
}

TEST(conn_time, slow_progress_is_not_stuck)
{
    duo d;
    netio_timer t;
    duo_init(&d);
    d.small = 8192;
    d.loop_opts.recv_buffer = 4096;
    d.dial.conn.write_timeout_ms = 400;
    d.dial.conn.write_queue_max = 4 << 20;
    d.b.on = pause_again;
    duo_open(&d, &end_plain, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    static char much[400000];
    CHECK_OK(CALL(netio_conn_write(d.a.c, much, sizeof much)));
    CHECK_OK(netio_timer_every(&t, d.loop, 10, read_a_little, &d.b));
    uint64_t start = now(&d);
    RUN_UNTIL(d.loop, d.b.got == sizeof much || d.a.closed);
    CHECK_EQ(sizeof much, d.b.got);
    CHECK_EQ(0, d.a.closed);
    CHECK(now(&d) - start > 400); // longer than the limit in all
    netio_timer_stop(t);
    duo_close(&d);
}

// The OS's buffer is so large that it has room again only after several limits' time.
TEST(conn_time, slow_reader_behind_a_large_buffer_is_not_stuck)
{
    duo d;
    netio_timer t;
    netio_socket s;
    int held;
    if (test_in_memory()) SKIP("there is no buffer of an OS");
    duo_init(&d);
    d.small = 8192;
    d.loop_opts.recv_buffer = 1024;
    d.dial.conn.write_timeout_ms = 600;
    d.dial.conn.write_queue_max = 8 << 20;
    d.b.on = pause_again;
    duo_open(&d, &end_plain, &end_all);
    CHECK_OK(netio_conn_socket(d.a.c, &s));
    if (netio_get_option(s, NETIO_OPT_UNSENT, &held) < 0) {
        duo_close(&d);
        SKIP("this system does not tell what it holds");
    }
    CHECK_OK(netio_set_option(s, NETIO_OPT_SNDBUF, 1 << 20));
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    static char much[6000000];
    CHECK_OK(CALL(netio_conn_write(d.a.c, much, sizeof much)));
    CHECK_OK(netio_timer_every(&t, d.loop, 10, read_a_little, &d.b));
    uint64_t start = now(&d);
    RUN_UNTIL(d.loop, now(&d) - start > 2000 || d.a.closed);
    CHECK_EQ(0, d.a.closed);
    netio_timer_stop(t); // now it reads nothing
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    duo_close(&d);
}

TEST(conn_time, write_limit_can_be_changed)
{
    duo d;
    stuck(&d, &end_all, -1);
    test_run_for(d.loop, 30);
    CHECK_EQ(0, d.a.timed_out);
    uint64_t start = now(&d);
    CHECK_OK(CALL(netio_conn_set_timeout(d.a.c, NETIO_TIMEOUT_WRITE, 20)));
    RUN_UNTIL(d.loop, d.a.timed_out == 1);
    CHECK(now(&d) - start < 5000);
    CHECK_OK(CALL(netio_conn_set_timeout(d.a.c, NETIO_TIMEOUT_WRITE, -1)));
    test_run_for(d.loop, 60);
    CHECK_BETWEEN(1, 2, d.a.timed_out);
    duo_close(&d);
}

//================================================================================================
// Defaults
//================================================================================================

TEST(conn_time, default_limits)
{
    duo d;
    uint64_t start;
    if (!test_in_memory()) SKIP("they take minutes; in memory time is virtual");
    stuck(&d, &end_all, 0);
    start = now(&d);
    RUN_UNTIL(d.loop, d.a.timed_out == 1 || now(&d) - start > 19000);
    RUN_UNTIL(d.loop, d.a.timed_out == 1);
    CHECK_BETWEEN(30000, 30100, now(&d) - start);
    start = now(&d);
    CHECK_OK(CALL(netio_conn_close(d.a.c))); // closing: at most 10 s
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_BETWEEN(9900, 10100, now(&d) - start);
    duo_close(&d);

    duo_init(&d); // the peer's end after close: 2 s
    duo_open(&d, &end_all, &end_all);
    start = now(&d);
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_BETWEEN(2000, 2100, now(&d) - start);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    duo_close(&d);

    duo_init(&d); // no limit for idle ones
    duo_open(&d, &end_all, &end_all);
    for (int i = 0; i < 360; i++) test_run_for(d.loop, 10000); // an hour
    CHECK_EQ(0, d.a.timed_out);
    CHECK_EQ(0, d.a.closed);
    duo_close(&d);
}

TEST(conn_time, default_limit_of_a_dial)
{
    duo d;
    netio_link link = {0};
    uint64_t start;
    if (!test_in_memory()) SKIP("it takes half a minute; in memory time is virtual");
    duo_init(&d);
    CHECK(test_network() != NULL);
    link.cut = true;
    test_link(&link);
    duo_start(&d, &end_all, &end_all);
    start = now(&d);
    RUN_UNTIL(d.loop, d.a.closed || now(&d) - start > 19000);
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_BETWEEN(30000, 30100, now(&d) - start);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    CHECK_EQ(NETIO_TIMEOUT_CONNECT, d.a.error.timeout);
    duo_close(&d);
}

// The clock of the options moves all of it, and may step back without harm.
static uint64_t fake_us;
static uint64_t fake_clock(void *user) { return (void)user, fake_us; }

TEST(conn_time, follows_the_clock_it_is_given)
{
    duo d;
    if (test_in_memory()) SKIP("its clock is the network's");
    duo_init(&d);
    fake_us = 1000000000;
    d.loop_opts.now_us = fake_clock;
    d.dial.conn.idle_timeout_ms = 60000;
    duo_open(&d, &end_all, &end_all);
    for (int i = 0; i < 5; i++) CHECK(netio_loop_run_once(d.loop, 0) >= 0);
    CHECK_EQ(0, d.a.timed_out);
    fake_us += 59000000;
    for (int i = 0; i < 5; i++) CHECK(netio_loop_run_once(d.loop, 0) >= 0);
    CHECK_EQ(0, d.a.timed_out);
    fake_us -= 3000000;
    for (int i = 0; i < 5; i++) CHECK(netio_loop_run_once(d.loop, 0) >= 0);
    fake_us += 5000000;
    for (int i = 0; i < 5; i++) CHECK(netio_loop_run_once(d.loop, 0) >= 0);
    CHECK_EQ(1, d.a.timed_out);
    duo_close(&d);
}

//================================================================================================
// Rates
//================================================================================================

// 25,000 bytes at 50,000 a second: half a second, less the first burst of 100 ms.
TEST(conn_time, rates_hold_both_ways)
{
    for (int reading = 0; reading < 2; reading++) {
        duo d;
        netio_conn_opts *slow;
        uint64_t start;
        duo_init(&d);
        slow = reading ? &d.listen.conn : &d.dial.conn;
        if (reading) slow->read_rate = 50000;
        else slow->write_rate = 50000;
        slow->write_timeout_ms = 50; // held back by the rate is not stuck
        d.a.out_seed = d.b.seed = 51;
        d.a.out_len = 25000;
        d.a.then = 's';
        duo_open(&d, &end_all, &end_all);
        start = now(&d);
        end_pump(&d.a);
        RUN_UNTIL(d.loop, d.b.ended);
        CHECK_EQ(25000, d.b.got);
        CHECK_BETWEEN(380, 5000, now(&d) - start);
        if (test_in_memory()) CHECK_BETWEEN(380, 620, now(&d) - start);
        CHECK_EQ(0, d.a.timed_out + d.b.timed_out);
        duo_close(&d);
    }
}

TEST(conn_time, rates_can_be_changed)
{
    duo d;
    uint64_t start;
    duo_init(&d);
    d.dial.conn.write_rate = 1000; // half a minute
    d.a.out_len = 30000;
    d.a.then = 's';
    duo_open(&d, &end_all, &end_all);
    start = now(&d);
    end_pump(&d.a);
    test_run_for(d.loop, 50);
    CHECK(d.b.got < 1000);
    CHECK_OK(CALL(netio_conn_set_rate(d.a.c, 0, 0)));
    RUN_UNTIL(d.loop, d.b.ended);
    CHECK_EQ(30000, d.b.got);
    CHECK(now(&d) - start < 10000);
    duo_close(&d);
}

TEST(conn_time, throttled_connection_leaves_others_alone)
{
    duo d;
    pool p;
    end served[2], fast;
    memset(&p, 0, sizeof p);
    memset(&fast, 0, sizeof fast);
    p.kind = KIND_POOL;
    p.ends = served;
    p.cap = 2;
    p.like.echo = true;
    duo_init(&d);
    d.listen.conn.user = &p;
    d.dial.conn.read_always = true;
    d.dial.conn.write_rate = 2000;
    d.a.out_len = 100000;
    duo_open(&d, &end_all, &end_plain);
    d.dial.conn.write_rate = 0;
    fast.out_len = 1000000;
    fast.out_seed = fast.seed = 52;
    duo_dial(&d, &fast, &end_all);
    RUN_UNTIL(d.loop, fast.opened);
    end_pump(&d.a);
    end_pump(&fast);
    RUN_UNTIL(d.loop, fast.got == 1000000);
    CHECK(d.a.got < 20000);
    duo_close(&d);
    CHECK_EQ(1, fast.closed);
}

//================================================================================================
// Graceful stop
//================================================================================================

static void finish_soon(void *user) { netio_loop_finish((netio_loop *)user, 5000); }

static void answer_then_close(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what != STOPPED) return;
    CHECK_OK(CALL(netio_conn_write(e->c, "bye", 3)));
    CHECK_OK(CALL(netio_conn_close(e->c)));
}

TEST(conn_time, finish_asks_each_connection)
{
    duo d;
    int ticks = 0;
    netio_timer t;
    duo_init(&d);
    d.b.on = answer_then_close;
    duo_open(&d, &end_plain, &end_all);
    // A timer that would keep the loop running: it does not hold the end up.
    CHECK_OK(netio_timer_once(&t, d.loop, 3600 * 1000, finish_soon, d.loop));
    CHECK_OK(netio_timer_once(NULL, d.loop, 5, finish_soon, d.loop));
    uint64_t start = now(&d);
    CHECK_OK(netio_loop_run(d.loop));
    CHECK(now(&d) - start < 4000);
    CHECK_STR("opc", d.b.log);
    CHECK_EQ(1, d.a.closed); // it has no on_stop, so it was closed: what came then was dropped
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    (void)ticks;
    duo_close(&d);
}

TEST(conn_time, finish_waits_for_the_active_and_cuts_the_stuck)
{
    enum { ACTIVE, IDLE, STUCK, CLIENTS };
    duo d;
    pool p;
    end served[CLIENTS + 1], client[CLIENTS];
    uint64_t start;
    memset(&p, 0, sizeof p);
    memset(client, 0, sizeof client);
    p.kind = KIND_POOL;
    p.ends = served;
    p.cap = CLIENTS + 1;
    duo_init(&d);
    d.small = 16384;
    d.listen.conn.user = &p;
    duo_open(&d, &end_plain, &end_plain); // the servers have no on_stop: they are closed
    for (int i = 0; i < CLIENTS; i++) {
        duo_dial(&d, &client[i], &end_all);
        RUN_UNTIL(d.loop, client[i].opened && p.used == (size_t)i + 2);
    }
    served[1 + ACTIVE].out_len = served[1 + STUCK].out_len = 900000;
    served[1 + ACTIVE].out_seed = client[ACTIVE].seed = 53;
    client[ACTIVE].on = NULL;
    CHECK_OK(CALL(netio_conn_pause(client[STUCK].c)));
    end_pump(&served[1 + ACTIVE]);
    end_pump(&served[1 + STUCK]);
    start = now(&d);
    int limit = test_under("wine") || test_under("valgrind") ? 2000 : 200;
    netio_loop_finish(d.loop, limit);
    CHECK_OK(netio_loop_run(d.loop));
    CHECK_BETWEEN(limit - 1, limit + 5000, now(&d) - start); // the stuck one used all of it
    CHECK_EQ(900000, client[ACTIVE].got);                    // the active one has all
    CHECK_EQ(1, served[1 + ACTIVE].closed);
    CHECK_EQ(1, served[1 + STUCK].closed);
    CHECK(served[1 + STUCK].err < 0);
    for (int i = 0; i < CLIENTS; i++) CHECK_EQ(1, client[i].closed);
    CHECK_EQ(1, client[IDLE].stopped); // its own loop was stopped, too
    duo_close(&d);
}

TEST(conn_time, finish_ends_listeners_and_dials)
{
    duo d;
    end late;
    netio_dial_opts opts;
    netio_addr addr;
    memset(&late, 0, sizeof late);
    memset(&opts, 0, sizeof opts);
    opts.conn.user = &late;
    duo_init(&d);
    d.b.on = answer_then_close;
    duo_open(&d, &end_plain, &end_all);
    CHECK_OK(CALL(netio_conn_dial(&late.c, d.loop, d.addr, &end_all, &opts)));
    netio_loop_finish(d.loop, 5000);
    CHECK_ERR(NETIO_ECANCELED, CALL(netio_conn_dial(NULL, d.loop, d.addr, &end_all, &opts)));
    CHECK_OK(netio_loop_run(d.loop));
    CHECK_ERR(NETIO_ESTALE, netio_listener_addr(d.listener, &addr));
    CHECK_EQ(1, late.closed);
    CHECK(late.err < 0);
    CHECK_EQ(0, late.opened);
    duo_close(&d);
}

TEST(conn_time, finish_again_stops_now)
{
    duo d;
    duo_init(&d);
    duo_open(&d, &end_all, &end_all); // on_stop does nothing
    netio_loop_finish(d.loop, -1);
    for (int i = 0; i < 5; i++) CHECK(netio_loop_run_once(d.loop, 5) >= 0);
    CHECK_EQ(1, d.a.stopped);
    CHECK_EQ(1, d.b.stopped);
    CHECK_EQ(0, d.a.closed);
    netio_loop_finish(d.loop, -1);
    CHECK_OK(netio_loop_run(d.loop));
    duo_close(&d);
    CHECK_EQ(1, d.a.stopped);
}

TEST(conn_time, finish_of_an_empty_loop_is_quick)
{
    netio_loop *loop;
    int ran = 0;
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(netio_loop_run(loop)); // nothing could happen
    netio_loop_finish(loop, 5000);
    CHECK_OK(netio_loop_run(loop));
    (void)ran;
    test_loop_destroy(&loop);
}

//================================================================================================

// clang-format off
TEST_MAIN("conn_time",
    T(conn_time, idle_is_told_again_and_again),
    T(conn_time, idle_without_on_timeout_aborts),
    T(conn_time, activity_either_way_keeps_idle_away),
    T(conn_time, idle_can_be_changed),
    T(conn_time, stuck_queue_is_told),
    T(conn_time, stuck_queue_without_on_timeout_aborts),
    T(conn_time, close_of_a_stuck_queue_ends),
    T(conn_time, slow_progress_is_not_stuck),
    T(conn_time, slow_reader_behind_a_large_buffer_is_not_stuck),
    T(conn_time, write_limit_can_be_changed),
    T(conn_time, default_limits),
    T(conn_time, default_limit_of_a_dial),
    T(conn_time, follows_the_clock_it_is_given),
    T(conn_time, rates_hold_both_ways),
    T(conn_time, rates_can_be_changed),
    T(conn_time, throttled_connection_leaves_others_alone),
    T(conn_time, finish_asks_each_connection),
    T(conn_time, finish_waits_for_the_active_and_cuts_the_stuck),
    T(conn_time, finish_ends_listeners_and_dials),
    T(conn_time, finish_again_stops_now),
    T(conn_time, finish_of_an_empty_loop_is_quick))
