// Timers of a loop, on a clock that the tests move by hand: nothing here sleeps, so every order and
// every moment is exact. Two tests at the end look at the real clock, and one at the virtual clock
// of a network in memory.
#include "test.h"

enum { HOUR_MS = 3600 * 1000 };

static struct {
    uint64_t us;
    netio_loop *loop;
} fake;

static uint64_t fake_now(void *user)
{
    (void)user;
    return fake.us;
}

// Not at zero, and not at a whole number that any rounding would hide.
static void open_loop(void)
{
    netio_loop_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.now_us = fake_now;
    fake.us = (uint64_t)77000000 * 1000;
    CHECK_OK(netio_loop_create(&fake.loop, &opts));
}

static void close_loop(void) { CHECK_OK(netio_loop_destroy(fake.loop)); }

// Time passes, then one turn. Returns the callbacks that ran.
static int after(int64_t ms)
{
    fake.us = (uint64_t)((int64_t)fake.us + ms * 1000);
    return netio_loop_run_once(fake.loop, 0);
}

static int next(void) { return netio_loop_next_timeout(fake.loop); }

static uint64_t now_ms(void) { return fake.us / 1000; }

// What ran, as letters in the order in which they ran.
static char ran[64];

static void say(const char *what)
{
    size_t used = strlen(ran);
    CHECK(used + strlen(what) < sizeof ran);
    memcpy(ran + used, what, strlen(what) + 1);
}

static void note(void *user) { say((const char *)user); }

#define CHECK_RAN(want)                                                                            \
    do {                                                                                           \
        CHECK_STR(want, ran);                                                                      \
        ran[0] = 0;                                                                                \
    } while (0)

static netio_timer once(int delay_ms, netio_task task, const char *name)
{
    netio_timer t;
    CHECK_OK(netio_timer_once(&t, fake.loop, delay_ms, task, (void *)(uintptr_t)name));
    return t;
}

static netio_timer every(int period_ms, netio_task task, const char *name)
{
    netio_timer t;
    CHECK_OK(netio_timer_every(&t, fake.loop, period_ms, task, (void *)(uintptr_t)name));
    return t;
}

static const netio_timer no_timer;
static netio_timer timer_a, timer_b; // for callbacks
static int count;

static void add_one(void *user)
{
    (void)user;
    count++;
}

//================================================================================================
// Once
//================================================================================================

TEST(timer, once_runs_once_and_not_before_its_time)
{
    ran[0] = 0;
    open_loop();
    CHECK_EQ(-1, next());
    once(10, note, "a");
    CHECK_EQ(10, next());
    CHECK_EQ(0, after(0));
    CHECK_EQ(0, after(9));
    CHECK_EQ(1, next());
    CHECK_EQ(1, after(1));
    CHECK_RAN("a");
    CHECK_EQ(-1, next());
    CHECK_EQ(0, after(100));
    CHECK_RAN("");
    close_loop();
}

// A loop that counts whole milliseconds would run it 0.9 ms early, and its user's own clock tells.
TEST(timer, parts_of_a_millisecond_never_make_it_early)
{
    ran[0] = 0;
    open_loop();
    fake.us += 900;
    CHECK_EQ(0, after(0));
    once(10, note, "a");
    fake.us += 9100;
    CHECK_EQ(0, after(0));
    CHECK_BETWEEN(1, 2, next());
    fake.us += 899;
    CHECK_EQ(0, after(0));
    CHECK_EQ(1, after(1));
    CHECK_RAN("a");
    close_loop();
}

// Time that passed since the last turn is not taken from the delay.
TEST(timer, delay_counts_from_the_call_if_the_loop_stood_still)
{
    ran[0] = 0;
    open_loop();
    CHECK_EQ(0, after(0));
    fake.us += 500 * 1000; // the program did something else
    once(100, note, "a");
    CHECK_EQ(0, after(0));
    CHECK_EQ(0, after(99));
    CHECK_EQ(1, after(1));
    CHECK_RAN("a");
    close_loop();
}

TEST(timer, zero_and_negative_delays_run_in_the_next_turn)
{
    static const int delays[] = {0, -1, -1000, INT32_MIN};
    open_loop();
    for (size_t i = 0; i < 4; i++) {
        ran[0] = 0;
        once(delays[i], note, "a");
        CHECK_EQ(0, next());
        CHECK_RAN("");
        CHECK_EQ(1, after(0));
        CHECK_RAN("a");
    }
    close_loop();
}

TEST(timer, longest_delay_is_kept)
{
    ran[0] = 0;
    open_loop();
    once(INT32_MAX, note, "a");
    CHECK_EQ(INT32_MAX, next());
    CHECK_EQ(0, after(INT32_MAX - 1));
    CHECK_EQ(1, next());
    CHECK_EQ(1, after(1));
    CHECK_RAN("a");
    // Twice as long, by a reset half-way: times beyond 31 bits of milliseconds.
    netio_timer t = once(INT32_MAX, note, "b");
    CHECK_EQ(0, after(INT32_MAX - 1));
    CHECK_OK(netio_timer_reset(t, INT32_MAX));
    CHECK_EQ(0, after(INT32_MAX - 1));
    CHECK_EQ(1, after(1));
    CHECK_RAN("b");
    close_loop();
}

TEST(timer, no_handle_is_needed)
{
    ran[0] = 0;
    open_loop();
    CHECK_OK(netio_timer_once(NULL, fake.loop, 5, note, (void *)(uintptr_t) "a"));
    CHECK_OK(netio_timer_every(NULL, fake.loop, 7, note, (void *)(uintptr_t) "b"));
    CHECK_EQ(1, after(5));
    CHECK_EQ(1, after(2));
    CHECK_EQ(1, after(7));
    CHECK_RAN("abb");
    close_loop();
}

//================================================================================================
// Order
//================================================================================================

TEST(timer, equal_times_run_in_order_of_start)
{
    ran[0] = 0;
    open_loop();
    once(20, note, "a");
    once(30, note, "e");
    once(20, note, "b");
    CHECK_EQ(0, after(10));
    once(10, note, "c");
    once(20, note, "f");
    CHECK_EQ(0, after(5));
    once(5, note, "d");
    CHECK_EQ(6, after(40));
    CHECK_RAN("abcdef");
    close_loop();
}

TEST(timer, late_ones_run_in_order_of_time)
{
    ran[0] = 0;
    open_loop();
    once(30, note, "c");
    once(10, note, "a");
    once(40, note, "d");
    once(20, note, "b");
    CHECK_EQ(4, after(1000));
    CHECK_RAN("abcd");
    close_loop();
}

typedef struct shot {
    uint64_t due;
    int seq;
} shot;

static struct {
    uint64_t last_due;
    int last_seq, runs;
    bool wrong, exact;
} order;

static void record(void *user)
{
    const shot *s = (const shot *)user;
    if (s->due < order.last_due) order.wrong = true;
    if (s->due == order.last_due && s->seq < order.last_seq) order.wrong = true;
    if (order.exact ? now_ms() != s->due : now_ms() < s->due) order.wrong = true;
    order.last_due = s->due;
    order.last_seq = s->seq;
    order.runs++;
}

// An hour of virtual time, in steps that the loop asks for: each runs at its very millisecond.
TEST(timer, ten_thousand_run_in_order_at_their_times)
{
    enum { N = 10000 };
    shot *s = (shot *)malloc(N * sizeof *s);
    uint32_t seed = 4711;
    memset(&order, 0, sizeof order);
    order.exact = true;
    open_loop();
    for (int i = 0; i < N; i++) {
        // Every eighth shares its time with many others.
        uint32_t delay = i % 8 ? test_random(&seed) % HOUR_MS : test_random(&seed) % 16 * 1000;
        s[i].due = now_ms() + delay;
        s[i].seq = i;
        CHECK_OK(netio_timer_once(NULL, fake.loop, (int)delay, record, &s[i]));
    }
    uint64_t start = now_ms();
    for (int step; (step = next()) >= 0;) CHECK(after(step) > 0);
    CHECK(!order.wrong);
    CHECK_EQ(N, order.runs);
    CHECK_BETWEEN(HOUR_MS - 60000, HOUR_MS, now_ms() - start);
    close_loop();
    free(s);
}

//================================================================================================
// Stop, reset and start, from everywhere
//================================================================================================

static void stop_b(void *user)
{
    note(user);
    netio_timer_stop(timer_b);
}

static void stop_a(void *user)
{
    note(user);
    netio_timer_stop(timer_a);
}

TEST(timer, stopped_ones_do_not_run)
{
    ran[0] = 0;
    open_loop();
    timer_a = once(10, note, "a");
    timer_b = every(10, note, "b");
    netio_timer_stop(timer_a);
    CHECK_EQ(1, after(10));
    netio_timer_stop(timer_b);
    netio_timer_stop(timer_b);
    netio_timer_stop(timer_a);
    CHECK_EQ(-1, next());
    CHECK_EQ(0, after(100));
    CHECK_RAN("b");
    close_loop();
}

TEST(timer, a_callback_stops_one_that_is_due_in_the_same_batch)
{
    ran[0] = 0;
    open_loop();
    once(10, stop_b, "a");
    timer_b = once(10, note, "b");
    once(10, note, "c");
    CHECK_EQ(2, after(10));
    CHECK_RAN("ac");
    // One that has run already in this batch; and one that is due later.
    timer_b = once(5, note, "b");
    once(5, stop_b, "d");
    CHECK_EQ(2, after(5));
    timer_b = once(20, note, "b");
    once(10, stop_b, "e");
    CHECK_EQ(1, after(50));
    CHECK_RAN("bde");
    // All of the batch but the first, which is how a program shuts down.
    timer_b = every(5, note, "b");
    once(5, stop_b, "f");
    CHECK_EQ(2, after(5));
    CHECK_EQ(-1, next());
    CHECK_RAN("bf");
    close_loop();
}

TEST(timer, a_callback_stops_itself)
{
    ran[0] = 0;
    open_loop();
    timer_a = every(10, stop_a, "a");
    CHECK_EQ(1, after(10));
    CHECK_EQ(-1, next());
    CHECK_EQ(0, after(10));
    timer_a = once(10, stop_a, "b");
    CHECK_EQ(1, after(10));
    CHECK_RAN("ab");
    close_loop();
}

static void start_at_once(void *user)
{
    note(user);
    if (strlen(ran) < 5) once(0, start_at_once, (const char *)user);
}

TEST(timer, what_a_callback_starts_waits_for_the_next_turn)
{
    ran[0] = 0;
    open_loop();
    once(0, start_at_once, "a");
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(0, next());
        CHECK_EQ(1, after(0));
    }
    CHECK_EQ(-1, next());
    CHECK_RAN("aaaaa");
    close_loop();
}

static void start_at_10(void *user)
{
    note(user);
    timer_b = once(10, note, "b");
}

TEST(timer, a_callback_starts_others)
{
    ran[0] = 0;
    open_loop();
    once(10, start_at_10, "a");
    CHECK_EQ(1, after(15)); // late: the new one counts from the turn, not from what was due
    CHECK_EQ(10, next());
    CHECK_EQ(0, after(9));
    CHECK_EQ(1, after(1));
    CHECK_RAN("ab");
    close_loop();
}

TEST(timer, reset_moves_it_both_ways)
{
    ran[0] = 0;
    open_loop();
    timer_a = once(10, note, "a");
    CHECK_OK(netio_timer_reset(timer_a, 100));
    CHECK_EQ(100, next());
    CHECK_EQ(0, after(99));
    CHECK_OK(netio_timer_reset(timer_a, 5));
    CHECK_EQ(0, after(4));
    CHECK_EQ(1, after(1));
    CHECK_RAN("a");
    CHECK_ERR(NETIO_ESTALE, netio_timer_reset(timer_a, 5));
    CHECK_EQ(-1, next());
    timer_a = once(10, note, "b");
    CHECK_OK(netio_timer_reset(timer_a, -3));
    CHECK_EQ(0, next());
    CHECK_EQ(1, after(0));
    CHECK_RAN("b");
    close_loop();
}

static void reset_b(void *user)
{
    note(user);
    CHECK_OK(netio_timer_reset(timer_b, 10));
}

TEST(timer, a_callback_resets_one_that_is_due_in_the_same_batch)
{
    ran[0] = 0;
    open_loop();
    once(10, reset_b, "a");
    timer_b = once(10, note, "b");
    CHECK_EQ(1, after(10));
    CHECK_RAN("a");
    CHECK_EQ(10, next());
    CHECK_EQ(1, after(10));
    CHECK_RAN("b");
    close_loop();
}

//================================================================================================
// Periods
//================================================================================================

TEST(timer, period_keeps_its_phase_and_skips_what_it_missed)
{
    open_loop();
    count = 0;
    netio_timer t = every(10, add_one, "");
    CHECK_EQ(1, after(10));
    CHECK_EQ(1, after(10));
    CHECK_EQ(10, next());
    CHECK_EQ(1, after(13)); // at 33, 3 late
    CHECK_EQ(7, next());
    CHECK_EQ(1, after(7));
    CHECK_EQ(1, after(35)); // at 75: 50, 60 and 70 are one
    CHECK_EQ(5, next());
    CHECK_EQ(1, after(5));
    CHECK_EQ(10, next());
    CHECK_EQ(1, after(1000000000)); // a laptop that slept
    CHECK_EQ(10, next());
    CHECK_EQ(7, count);
    netio_timer_stop(t);
    close_loop();
}

TEST(timer, an_hour_of_seconds_is_3600_ticks)
{
    open_loop();
    count = 0;
    netio_timer t = every(1000, add_one, "");
    uint64_t start = now_ms();
    while (now_ms() - start < HOUR_MS) CHECK_EQ(1, after(next()));
    CHECK_EQ(3600, count);
    CHECK_EQ(HOUR_MS, now_ms() - start);
    netio_timer_stop(t);
    close_loop();
}

static void takes_25_ms(void *user)
{
    (void)user;
    count++;
    fake.us += 25 * 1000;
}

// A callback that takes longer than the period still leaves turns to the rest of the program.
TEST(timer, a_slow_callback_runs_once_a_turn)
{
    open_loop();
    count = 0;
    netio_timer t = every(10, takes_25_ms, "");
    for (int i = 1; i < 20; i++) {
        CHECK_EQ(1, after(10));
        CHECK_EQ(i, count);
        CHECK_BETWEEN(0, 10, next());
    }
    netio_timer_stop(t);
    close_loop();
}

static void reset_own(void *user)
{
    note(user);
    CHECK_OK(netio_timer_reset(timer_a, 3));
}

TEST(timer, reset_moves_a_period)
{
    open_loop();
    ran[0] = 0;
    timer_a = every(10, note, "a");
    CHECK_EQ(0, after(4));
    CHECK_OK(netio_timer_reset(timer_a, 3));
    CHECK_EQ(1, after(3));
    CHECK_EQ(10, next());
    CHECK_EQ(1, after(10));
    CHECK_RAN("aa");
    netio_timer_stop(timer_a);
    timer_a = every(10, reset_own, "b"); // in its own callback
    CHECK_EQ(1, after(10));
    CHECK_EQ(3, next());
    CHECK_EQ(1, after(3));
    CHECK_RAN("bb");
    netio_timer_stop(timer_a);
    close_loop();
}

TEST(timer, a_period_is_one_millisecond_or_more)
{
    netio_timer t;
    memset(&t, 0, sizeof t);
    open_loop();
    CHECK_ERR(NETIO_EINVAL, netio_timer_every(&t, fake.loop, 0, add_one, NULL));
    CHECK_ERR(NETIO_EINVAL, netio_timer_every(&t, fake.loop, -1, add_one, NULL));
    CHECK_ERR(NETIO_EINVAL, netio_timer_every(&t, fake.loop, INT32_MIN, add_one, NULL));
    CHECK(t.ptr == NULL && t.gen == 0);
    CHECK_EQ(-1, next());
    CHECK_OK(netio_timer_every(&t, fake.loop, 1, add_one, NULL));
    count = 0;
    for (int i = 0; i < 100; i++) CHECK_EQ(1, after(1));
    CHECK_EQ(100, count);
    netio_timer_stop(t);
    CHECK_OK(netio_timer_every(&t, fake.loop, INT32_MAX, add_one, NULL));
    CHECK_EQ(1, after(INT32_MAX));
    CHECK_EQ(INT32_MAX, next());
    close_loop();
}

//================================================================================================
// The clock
//================================================================================================

TEST(timer, steps_back_of_the_clock_are_ignored)
{
    open_loop();
    ran[0] = 0;
    CHECK_EQ(0, after(0));
    once(100, note, "a");
    every(100, note, "b");
    uint64_t last = netio_loop_now_ms(fake.loop), start = fake.us;
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(0, after(i % 2 ? 1000 : -1500)); // never past where it began
        CHECK(netio_loop_now_ms(fake.loop) >= last);
        CHECK_BETWEEN(0, 100, next());
        last = netio_loop_now_ms(fake.loop);
    }
    fake.us = start;
    CHECK_EQ(2, after(101));
    CHECK_RAN("ab");
    CHECK(netio_loop_now_ms(fake.loop) > last);
    close_loop();
}

// A timer that is started meanwhile would be long over by the loop's time.
TEST(timer, started_while_the_clock_is_behind_it_waits)
{
    ran[0] = 0;
    open_loop();
    CHECK_EQ(0, after(2000));
    CHECK_EQ(0, after(-1500));
    once(10, note, "a");
    timer_b = once(20, note, "b");
    CHECK_OK(netio_timer_reset(timer_b, 15));
    CHECK_BETWEEN(1, 1510, next());
    CHECK_EQ(0, after(5));
    CHECK_RAN("");
    for (int i = 0; i < 200; i++) after(10); // past where it was
    CHECK_RAN("ab");
    close_loop();
}

static uint64_t seen_ms;

static void look_twice(void *user)
{
    (void)user;
    seen_ms = netio_loop_now_ms(fake.loop);
    fake.us += 5000;
    CHECK_EQ(seen_ms, netio_loop_now_ms(fake.loop));
}

TEST(timer, the_loop_reads_its_clock_once_a_turn)
{
    open_loop();
    once(10, look_twice, "");
    CHECK_EQ(1, after(10));
    CHECK_EQ(0, after(0));
    CHECK_EQ(seen_ms + 5, netio_loop_now_ms(fake.loop));
    close_loop();
}

//================================================================================================
// Handles
//================================================================================================

TEST(timer, a_stale_handle_never_reaches_its_successor)
{
    netio_timer old[64], t;
    open_loop();
    ran[0] = 0;
    for (int i = 0; i < 64; i++) {
        old[i] = once(1, note, "x");
        if (i % 2) netio_timer_stop(old[i]);
    }
    CHECK_EQ(32, after(1));
    ran[0] = 0;
    for (int i = 0; i < 64; i++) {
        t = once(10, note, i % 8 ? "" : "a"); // in one of the old places
        for (int k = 0; k < 64; k++) {
            netio_timer_stop(old[k]);
            CHECK_ERR(NETIO_ESTALE, netio_timer_reset(old[k], 1));
            CHECK(t.ptr != old[k].ptr || t.gen != old[k].gen);
        }
    }
    CHECK_EQ(64, after(10));
    CHECK_RAN("aaaaaaaa");
    netio_timer_stop(no_timer);
    CHECK_ERR(NETIO_ESTALE, netio_timer_reset(no_timer, 1));
    CHECK_EQ(-1, next());
    close_loop();
}

TEST(timer, destroy_runs_none_of_them)
{
    open_loop();
    ran[0] = 0;
    once(0, note, "a");
    every(1, note, "b");
    fake.us += 5000;
    close_loop();
    CHECK_RAN("");
}

//================================================================================================
// Many
//================================================================================================

TEST(timer, hundred_thousand_run_at_once)
{
    enum { N = 100000 };
    shot *s = (shot *)malloc(N * sizeof *s);
    netio_timer *t = (netio_timer *)malloc(N * sizeof *t);
    uint32_t seed = 99;
    int want = 0, stopped = 0;
    memset(&order, 0, sizeof order);
    open_loop();
    for (int i = 0; i < N; i++) {
        s[i].seq = i;
        s[i].due = now_ms() + test_random(&seed) % 60000;
        CHECK_OK(netio_timer_once(&t[i], fake.loop, (int)(s[i].due - now_ms()), record, &s[i]));
    }
    for (int i = 0; i < N; i++) {
        uint32_t dice = test_random(&seed) % 4;
        if (dice == 0) netio_timer_stop(t[i]);
        stopped += dice == 0;
        if (dice != 1) continue;
        s[i].due = now_ms() + test_random(&seed) % 60000;
        s[i].seq = N + i; // a reset is a start
        CHECK_OK(netio_timer_reset(t[i], (int)(s[i].due - now_ms())));
    }
    while (next() >= 0) want += after(50 + next());
    CHECK(!order.wrong);
    CHECK_EQ(N - stopped, order.runs);
    CHECK_EQ(N - stopped, want);
    for (int i = 0; i < N; i++) CHECK_ERR(NETIO_ESTALE, netio_timer_reset(t[i], 1));
    close_loop();
    free(s);
    free(t);
}

// Starting, stopping and moving costs no memory once there was room for as many.
TEST(timer, nothing_is_allocated_after_the_first_round)
{
    enum { N = 1000 };
    netio_timer t[N];
    long allocs = 0;
    open_loop();
    count = 0;
    for (int round = 0; round < 100; round++) {
        if (round == 2) allocs = test_allocs();
        for (int i = 0; i < N; i++) t[i] = once(i % 50 + 1, add_one, "");
        for (int i = 0; i < N; i += 2) CHECK_OK(netio_timer_reset(t[i], 30));
        for (int i = 0; i < N; i += 3) netio_timer_stop(t[i]);
        CHECK(after(10) > 0);
        CHECK(after(100) > 0);
        CHECK_EQ(-1, next());
    }
    CHECK_EQ(allocs, test_allocs());
    CHECK_EQ(100 * (N - (N + 2) / 3), count);
    close_loop();
}

TEST(timer, without_memory_nothing_has_changed)
{
    netio_timer t;
    int started = 0;
    open_loop();
    count = 0;
    for (int i = 0; i < 3000; i++) {
        memset(&t, 0, sizeof t);
        test_alloc_fail_at(1);
        int err = i % 2 ? netio_timer_once(&t, fake.loop, 10, add_one, NULL)
                        : netio_timer_every(&t, fake.loop, 10, add_one, NULL);
        test_alloc_fail_at(0);
        if (err == 0) {
            started++;
            continue;
        }
        CHECK_ERR(NETIO_ENOMEM, err);
        CHECK(t.ptr == NULL);
        once(10, add_one, ""); // now there is room again
        started++;
    }
    CHECK_EQ(started, after(10));
    CHECK_EQ(started, count);
    close_loop();
}

//================================================================================================
// Against a model: random calls, also from the callbacks, and after each run the question whether
// it was this one's turn
//================================================================================================

enum { SLOTS = 48 };

typedef struct slot {
    netio_timer t;
    bool running;
    bool moved;       // reset, or a period after its first: its rank among equals is not promised
    int period;       // 0: once
    uint64_t due;     // on the loop's clock
    uint64_t started; // turn in which it was started or reset, last
    uint64_t seq;
} slot;

static struct {
    slot slots[SLOTS];
    uint32_t seed;
    uint64_t turn, seq;
    int runs, expected;
    const char *wrong;
} model;

static uint32_t dice(uint32_t sides) { return test_random(&model.seed) % sides; }

static bool eligible(const slot *s)
{
    return s->running && s->due <= netio_loop_now_ms(fake.loop) && s->started < model.turn;
}

static void model_ran(void *user);

static void model_start(slot *s)
{
    int delay = (int)dice(40) - 5;
    s->period = dice(3) ? 0 : 1 + (int)dice(20);
    s->moved = false;
    s->running = true;
    s->seq = model.seq++;
    s->started = model.turn;
    if (s->period) {
        CHECK_OK(netio_timer_every(&s->t, fake.loop, s->period, model_ran, s));
        delay = s->period;
    } else {
        CHECK_OK(netio_timer_once(&s->t, fake.loop, delay, model_ran, s));
    }
    s->due = netio_loop_now_ms(fake.loop) + (uint64_t)(delay > 0 ? delay : 0);
}

static void model_reset(slot *s)
{
    int delay = (int)dice(40) - 5;
    int err = netio_timer_reset(s->t, delay);
    if (!s->running) CHECK_ERR(NETIO_ESTALE, err);
    else CHECK_OK(err);
    if (!s->running) return;
    s->moved = true;
    s->started = model.turn;
    s->due = netio_loop_now_ms(fake.loop) + (uint64_t)(delay > 0 ? delay : 0);
}

static void model_step(void)
{
    slot *s = &model.slots[dice(SLOTS)];
    switch (dice(4)) {
    case 0:
        netio_timer_stop(s->t);
        s->running = false;
        break;
    case 1: model_reset(s); break;
    default:
        if (!s->running) model_start(s);
    }
}

static void model_ran(void *user)
{
    slot *s = (slot *)user;
    model.runs++;
    if (!eligible(s)) model.wrong = "it was not due";
    for (int i = 0; i < SLOTS; i++) {
        const slot *o = &model.slots[i];
        if (o == s || !eligible(o)) continue;
        if (o->due < s->due) model.wrong = "another was due before it";
        if (o->due == s->due && !o->moved && !s->moved && o->seq < s->seq)
            model.wrong = "another was started before it";
    }
    if (s->period) {
        uint64_t now = netio_loop_now_ms(fake.loop);
        s->due += ((now - s->due) / (uint64_t)s->period + 1) * (uint64_t)s->period;
        s->moved = true;
    } else {
        s->running = false; // its handle is stale from here on
    }
    for (uint32_t i = dice(3); i > 0; i--) model_step();
}

static void check_turn(uint32_t seed, int64_t ms)
{
    uint64_t least = UINT64_MAX, now;
    model.turn++;
    model.runs = 0;
    int got = after(ms);
    if (model.wrong) test_fail(__FILE__, __LINE__, "seed %u: %s", seed, model.wrong);
    CHECK_EQ(model.runs, got);
    now = netio_loop_now_ms(fake.loop);
    model.turn++; // for what is started between turns
    for (int i = 0; i < SLOTS; i++) {
        const slot *s = &model.slots[i];
        if (!s->running) continue;
        if (s->due <= now && s->started < model.turn - 1)
            test_fail(__FILE__, __LINE__, "seed %u: one that was due did not run", seed);
        if (s->due < least) least = s->due;
    }
    CHECK_EQ(least == UINT64_MAX ? -1 : least <= now ? 0 : (long long)(least - now), next());
}

TEST(timer, random_calls_agree_with_a_model)
{
    for (uint32_t seed = 1; seed <= 60; seed++) {
        memset(&model, 0, sizeof model);
        model.seed = seed * 2654435761u;
        model.turn = 1;
        open_loop();
        CHECK_EQ(0, after(0));
        for (int i = 0; i < 300; i++) {
            for (uint32_t k = dice(6); k > 0; k--) model_step();
            check_turn(seed, dice(20) ? (int64_t)dice(8) : (int64_t)dice(200));
        }
        close_loop();
    }
}

//================================================================================================
// Real and virtual time
//================================================================================================

TEST(timer, the_real_clock_is_never_ahead)
{
    netio_loop *loop;
    CHECK_OK(netio_loop_create(&loop, NULL));
    count = 0;
    for (int ms = 0; ms <= 30; ms += 6) {
        test_sleep_ms(3); // the loop's own time is old now
        uint64_t start = netio_now_us();
        CHECK_OK(netio_timer_once(NULL, loop, ms, add_one, NULL));
        CHECK_OK(netio_loop_run(loop)); // returns: nothing else is left
        CHECK_BETWEEN(ms * 1000, ms * 1000 + 3000000, netio_now_us() - start);
    }
    CHECK_EQ(6, count);
    CHECK_OK(netio_loop_destroy(loop));
}

static netio_timer virtual_tick;
static netio_network *network;

static void virtual_second(void *user)
{
    (void)user;
    if (++count == 3600) netio_timer_stop(virtual_tick);
    if (netio_network_now_us(network) % 1000000 != 0) order.wrong = true;
}

TEST(timer, an_hour_on_a_network_in_memory_takes_no_time)
{
    netio_loop_opts opts;
    netio_loop *loop;
    uint64_t start = test_ms();
    count = 0;
    memset(&order, 0, sizeof order);
    memset(&opts, 0, sizeof opts);
    CHECK_OK(netio_network_create(&network, NULL));
    opts.network = network;
    CHECK_OK(netio_loop_create(&loop, &opts));
    uint64_t began = netio_network_now_us(network);
    CHECK_OK(netio_network_run(network, (int)(1000 - began / 1000 % 1000))); // to a whole second
    began = netio_network_now_us(network);
    CHECK_OK(netio_timer_every(&virtual_tick, loop, 1000, virtual_second, NULL));
    CHECK_OK(netio_network_run(network, HOUR_MS / 2));
    CHECK_EQ(1800, count);
    CHECK_EQ(began + (uint64_t)HOUR_MS / 2 * 1000, netio_network_now_us(network));
    CHECK_OK(netio_loop_run(loop)); // until the timer has stopped itself
    CHECK_EQ(3600, count);
    CHECK(!order.wrong);
    CHECK_EQ(began + (uint64_t)HOUR_MS * 1000, netio_network_now_us(network));
    CHECK_BETWEEN(0, 1000, test_ms() - start);
    CHECK_OK(netio_loop_destroy(loop));
    CHECK_OK(netio_network_destroy(network));
}

TEST_MAIN(
    "timer", T(timer, once_runs_once_and_not_before_its_time),
    T(timer, parts_of_a_millisecond_never_make_it_early),
    T(timer, delay_counts_from_the_call_if_the_loop_stood_still),
    T(timer, zero_and_negative_delays_run_in_the_next_turn), T(timer, longest_delay_is_kept),
    T(timer, no_handle_is_needed), T(timer, equal_times_run_in_order_of_start),
    T(timer, late_ones_run_in_order_of_time), T(timer, ten_thousand_run_in_order_at_their_times),
    T(timer, stopped_ones_do_not_run), T(timer, a_callback_stops_one_that_is_due_in_the_same_batch),
    T(timer, a_callback_stops_itself), T(timer, what_a_callback_starts_waits_for_the_next_turn),
    T(timer, a_callback_starts_others), T(timer, reset_moves_it_both_ways),
    T(timer, a_callback_resets_one_that_is_due_in_the_same_batch),
    T(timer, period_keeps_its_phase_and_skips_what_it_missed),
    T(timer, an_hour_of_seconds_is_3600_ticks), T(timer, a_slow_callback_runs_once_a_turn),
    T(timer, reset_moves_a_period), T(timer, a_period_is_one_millisecond_or_more),
    T(timer, steps_back_of_the_clock_are_ignored),
    T(timer, started_while_the_clock_is_behind_it_waits),
    T(timer, the_loop_reads_its_clock_once_a_turn),
    T(timer, a_stale_handle_never_reaches_its_successor), T(timer, destroy_runs_none_of_them),
    T(timer, hundred_thousand_run_at_once), T(timer, nothing_is_allocated_after_the_first_round),
    T(timer, without_memory_nothing_has_changed), T(timer, random_calls_agree_with_a_model),
    T(timer, the_real_clock_is_never_ahead), T(timer, an_hour_on_a_network_in_memory_takes_no_time))
