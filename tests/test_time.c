// The clock and deadlines.
//
// On Linux this program stands between netio and the C library's clocks: clock_gettime,
// gettimeofday and time below are called instead of the system's. So the wall clock can jump, and
// two hundred years can pass, without touching the machine's clock (a time namespace cannot do it:
// it shifts the monotonic clock alone).
#ifdef _WIN32
#include <winsock2.h>
#include <windows.h>
#elif !defined(_GNU_SOURCE)
#define _GNU_SOURCE // syscall under -std=c99
#endif
#include "test.h"

#include <limits.h>

#ifndef _WIN32
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#endif

//================================================================================================
// A clock in our hands
//================================================================================================

#if defined(__linux__) && defined(SYS_clock_gettime) && defined(__LP64__)

static struct {
    int64_t wall_jump_s; // added to what the wall clock says
    uint64_t at_ns;      // what the monotonic clock says; 0: the truth
    long wall_calls, mono_calls;
    bool counting; // only while one thread runs
} fake;

int clock_gettime(clockid_t clock, struct timespec *out)
{
    long err = syscall(SYS_clock_gettime, clock, out);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        if (fake.counting) fake.wall_calls++;
        out->tv_sec += (time_t)fake.wall_jump_s;
    } else {
        if (fake.counting) fake.mono_calls++;
        if (fake.at_ns) {
            out->tv_sec = (time_t)(fake.at_ns / 1000000000u);
            out->tv_nsec = (long)(fake.at_ns % 1000000000u);
        }
    }
    return (int)err;
}

// The C library declares these two differently from system to system; calls are what counts.
int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec ts;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &ts);
    out->tv_sec = ts.tv_sec;
    out->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (out) *out = ts.tv_sec;
    return ts.tv_sec;
}

static void need_fake_clock(void)
{
    long before = fake.mono_calls;
    fake.counting = true;
    netio_now_us();
    if (fake.mono_calls == before) SKIP("netio's clock does not come through this program's");
}

static int64_t wall_now(void) { return (int64_t)time(NULL); }
static void clock_at(uint64_t ns) { fake.at_ns = ns; }
static void wall_jump(int64_t s) { fake.wall_jump_s = s; }
static long wall_calls(void) { return fake.wall_calls; }
#else
static void need_fake_clock(void) { SKIP("no clock of our own under netio on this system"); }
static int64_t wall_now(void) { return 0; }
static void clock_at(uint64_t ns) { (void)ns; }
static void wall_jump(int64_t s) { (void)s; }
static long wall_calls(void) { return 0; }
#endif

static const uint64_t S = 1000000000u, MS = 1000000u;

//================================================================================================
// The clock
//================================================================================================

TEST(time, never_goes_back)
{
    uint64_t last_us = netio_now_us(), last_ms = netio_now_ms(), start = test_ms();
    for (int i = 0; i < 1000000 && test_ms() - start < 500; i++) {
        uint64_t us = netio_now_us(), ms = netio_now_ms();
        CHECK(us >= last_us);
        CHECK(ms >= last_ms);
        last_us = us;
        last_ms = ms;
    }
}

TEST(time, milliseconds_and_microseconds_are_one_clock)
{
    for (int i = 0; i < 100000; i++) {
        uint64_t before = netio_now_us(), ms = netio_now_ms(), after = netio_now_us();
        CHECK(ms >= before / 1000 && ms <= after / 1000);
    }
}

TEST(time, microseconds_are_that_fine)
{
    // A clock of 16 ms (GetTickCount) shows one step at most in 5 ms. Again and again, because on
    // a busy machine one look may take longer than that.
    int steps = 0;
    for (int attempt = 0; attempt < 200 && steps < 3; attempt++) {
        uint64_t start = netio_now_us(), last = start;
        steps = 0;
        while (last - start < 5000) {
            uint64_t now = netio_now_us();
            if (now != last && now - start < 5000) steps++;
            last = now;
        }
    }
    CHECK(steps >= 3);
}

TEST(time, agrees_with_another_clock)
{
    // Each reading of ours lies between two of the other clock, however long they take.
    uint64_t before = test_ms(), from = netio_now_us(), begun = test_ms(), ended, to, after;
    do ended = test_ms();
    while (ended < begun + 60);
    to = netio_now_us();
    after = test_ms();
    CHECK_BETWEEN((long long)(ended - begun - 2) * 1000, (long long)(after - before + 2) * 1000,
                  to - from);
}

typedef struct reader {
    test_thread thread;
    uint64_t first, last;
    bool back;
} reader;

static void read_clock(void *arg)
{
    reader *r = (reader *)arg;
    r->first = r->last = netio_now_us();
    for (int i = 0; i < 20000; i++) {
        uint64_t now = netio_now_us();
        if (now < r->last) r->back = true;
        r->last = now;
    }
}

TEST(time, threads_share_one_clock)
{
    enum { N = 4 };
    reader r[N];
    uint64_t before = netio_now_us(), after;
    memset(r, 0, sizeof r);
    for (int i = 0; i < N; i++) test_thread_start(&r[i].thread, read_clock, &r[i]);
    for (int i = 0; i < N; i++) test_thread_join(&r[i].thread);
    after = netio_now_us();
    for (int i = 0; i < N; i++) {
        CHECK(!r[i].back);
        CHECK(r[i].first >= before && r[i].last <= after);
    }
}

//================================================================================================
// Deadlines
//================================================================================================

TEST(time, deadline_of_no_limit_never_comes)
{
    static const int never[] = {-1, -2, -1000, INT_MIN};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        int64_t by = netio_deadline(never[i]);
        CHECK_EQ(-1, netio_deadline_left(by));
        CHECK_EQ(-1, netio_deadline_left(by));
    }
}

TEST(time, deadline_of_zero_is_over)
{
    for (int i = 0; i < 1000; i++) CHECK_EQ(0, netio_deadline_left(netio_deadline(0)));
}

TEST(time, deadline_left_is_within_what_was_given)
{
    static const int given[] = {1, 2, 10, 1000, 60000, 86400000, INT_MAX - 1, INT_MAX};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        uint64_t start = netio_now_us();
        int64_t by = netio_deadline(given[i]);
        int left = netio_deadline_left(by);
        uint64_t took_ms = (netio_now_us() - start) / 1000 + 1;
        CHECK(left <= given[i]);
        CHECK(left >= 0 && (uint64_t)left + took_ms >= (uint64_t)given[i]);
    }
}

TEST(time, deadline_is_never_early)
{
    for (int timeout_ms = 1; timeout_ms <= 12; timeout_ms++) {
        uint64_t start = netio_now_us(), now;
        int64_t by = netio_deadline(timeout_ms);
        int last = timeout_ms, left;
        while ((left = netio_deadline_left(by)) > 0) {
            CHECK(left <= last); // only ever less
            last = left;
        }
        now = netio_now_us();
        CHECK_EQ(0, left);
        CHECK(now - start >= (uint64_t)timeout_ms * 1000u);
        CHECK(now - start < (uint64_t)timeout_ms * 1000u + 2000000u);
        CHECK_EQ(0, netio_deadline_left(by)); // and stays over
    }
}

TEST(time, deadline_holds_over_several_calls)
{
    netio_socket s[2];
    char byte;
    int64_t by;
    uint64_t start;
    int waits = 0;
    CHECK_OK(netio_pair(s, NETIO_STREAM));
    start = netio_now_us();
    by = netio_deadline(40);
    for (;;) { // each call is given what is left: together they take the one deadline
        int left = netio_deadline_left(by);
        ptrdiff_t n = netio_recv(s[0], &byte, 1, left > 10 ? 10 : left);
        CHECK(n == NETIO_ETIMEDOUT || (n == NETIO_EAGAIN && left == 0));
        waits++;
        if (left == 0) break;
    }
    CHECK(netio_now_us() - start >= 40000);
    CHECK(netio_now_us() - start < 5000000);
    CHECK_BETWEEN(2, 100, waits);
    netio_close(&s[0]);
    netio_close(&s[1]);
}

//================================================================================================
// With a clock in our hands
//================================================================================================

TEST(time, wall_clock_jumps_move_nothing)
{
    static const int64_t jumps[] = {3600, -3600, 86400 * 365, -86400 * 365, 0};
    uint64_t start, before, after;
    int64_t by, wall;
    need_fake_clock();
    start = test_ms();
    wall = wall_now();
    before = netio_now_us();
    by = netio_deadline(60000);
    for (size_t i = 0; i < sizeof jumps / sizeof jumps[0]; i++) {
        wall_jump(jumps[i]);
        CHECK_BETWEEN(jumps[i] - 60, jumps[i] + 60, wall_now() - wall); // it did jump
        after = netio_now_us();
        CHECK(after >= before);
        CHECK(after - before < 10000000u);
        CHECK_BETWEEN(50000, 60000, netio_deadline_left(by));
        before = after;
    }
    wall_jump(0);
    CHECK(test_ms() - start < 10000);
}

TEST(time, a_wait_does_not_see_the_wall_clock_jump)
{
    static const int64_t jumps[] = {3600, -3600};
    need_fake_clock();
    for (size_t i = 0; i < 2; i++) {
        netio_socket s[2];
        uint64_t start;
        char byte;
        long calls;
        CHECK_OK(netio_pair(s, NETIO_STREAM));
        calls = wall_calls();
        start = test_ms();
        wall_jump(jumps[i]);
        CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(s[0], &byte, 1, 30));
        wall_jump(0);
        CHECK_BETWEEN(29, 5000, test_ms() - start);
        CHECK_EQ(calls, wall_calls()); // nobody even asked it
        netio_close(&s[0]);
        netio_close(&s[1]);
    }
}

TEST(time, milliseconds_are_whole_ones_of_the_same_instant)
{
    static const uint64_t at[] = {1, 999, 1000, 999999, 1000000, 1000001, 1999999, 123456789012345};
    need_fake_clock();
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        uint64_t us, ms;
        clock_at(at[i]);
        us = netio_now_us();
        ms = netio_now_ms();
        clock_at(0);
        CHECK_EQ(at[i] / 1000, us);
        CHECK_EQ(at[i] / 1000000, ms);
    }
}

TEST(time, what_is_left_is_rounded_up)
{
    // Truncated, a rest of 0.4 ms would be 0: a wait that does not wait, and spins.
    static const struct {
        uint64_t later_us;
        int left;
    } rows[] = {{0, 10},    {1, 10},    {999, 10},  {1000, 9},  {1001, 9},   {8999, 2},
                {9000, 1},  {9001, 1},  {9600, 1},  {9999, 1},  {10000, 0},  {10001, 0},
                {11000, 0}, {20000, 0}, {60000000, 0}};
    static const uint64_t begin[] = {5 * 1000000000ull, 5 * 1000000000ull + 1000,
                                     5 * 1000000000ull + 999000, 7 * 1000000000ull + 123456000};
    need_fake_clock();
    for (size_t b = 0; b < sizeof begin / sizeof begin[0]; b++) {
        int64_t by;
        clock_at(begin[b]);
        by = netio_deadline(10);
        clock_at(0);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            int left;
            clock_at(begin[b] + rows[i].later_us * 1000);
            left = netio_deadline_left(by);
            clock_at(0);
            CHECK_EQ(rows[i].left, left);
        }
    }
}

TEST(time, parts_of_a_microsecond_do_not_make_it_early)
{
    need_fake_clock();
    for (uint64_t ns = 0; ns < 1000; ns += 111) {
        int64_t by;
        int at_end, before_end;
        clock_at(5 * S + ns);
        by = netio_deadline(1);
        clock_at(5 * S + ns + MS - 1000);
        before_end = netio_deadline_left(by);
        clock_at(5 * S + ns + MS + 1000);
        at_end = netio_deadline_left(by);
        clock_at(0);
        CHECK_EQ(1, before_end);
        CHECK_EQ(0, at_end);
    }
}

TEST(time, two_hundred_years_do_not_overflow)
{
    uint64_t year = 365 * 86400u, at, us, ms;
    int64_t by, none;
    int left, later, over;
    need_fake_clock();
    for (uint64_t years = 50; years <= 300; years += 50) {
        at = years * year;
        if (at > UINT64_MAX / S) break;
        clock_at(at * S);
        us = netio_now_us();
        ms = netio_now_ms();
        by = netio_deadline(INT_MAX);
        none = netio_deadline(-1);
        left = netio_deadline_left(by);
        clock_at(at * S + 1000 * MS);
        later = netio_deadline_left(by);
        clock_at(at * S + 86400 * 30 * S);
        over = netio_deadline_left(by);
        clock_at(0);
        CHECK_EQ(at * 1000000u, us);
        CHECK_EQ(at * 1000u, ms);
        CHECK_EQ(INT_MAX, left);
        CHECK_EQ(INT_MAX - 1000, later);
        CHECK_EQ(0, over);
        CHECK_EQ(-1, netio_deadline_left(none));
    }
}

TEST(time, a_deadline_from_a_clock_ahead_is_cut_to_int)
{
    // A deadline of another boot or machine: more than an int of milliseconds away.
    int64_t by;
    int left;
    need_fake_clock();
    clock_at(100 * 86400 * S);
    by = netio_deadline(INT_MAX);
    clock_at(1 * S);
    left = netio_deadline_left(by);
    clock_at(0);
    CHECK(left == INT_MAX);
}

// clang-format off
TEST_MAIN("time",
    T(time, never_goes_back),
    T(time, milliseconds_and_microseconds_are_one_clock),
    T(time, microseconds_are_that_fine),
    T(time, agrees_with_another_clock),
    T(time, threads_share_one_clock),
    T(time, deadline_of_no_limit_never_comes),
    T(time, deadline_of_zero_is_over),
    T(time, deadline_left_is_within_what_was_given),
    T(time, deadline_is_never_early),
    T(time, deadline_holds_over_several_calls),
    T(time, wall_clock_jumps_move_nothing),
    T(time, a_wait_does_not_see_the_wall_clock_jump),
    T(time, milliseconds_are_whole_ones_of_the_same_instant),
    T(time, what_is_left_is_rounded_up),
    T(time, parts_of_a_microsecond_do_not_make_it_early),
    T(time, two_hundred_years_do_not_overflow),
    T(time, a_deadline_from_a_clock_ahead_is_cut_to_int))
// clang-format on
