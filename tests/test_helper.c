// The small tools: pauses, rates, limits per host, heartbeats, waiting for a server, receiving into
// a file. What has a clock gets it from the test, so nothing here sleeps; the server that starts
// late alone is late on purpose. (Checksum, hex dump and text: test_diag.c. The pool: test_pool.c.)
#ifndef _WIN32
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#endif
#include "test.h"

#include <limits.h>

#ifdef _WIN32
#include <winsock2.h>
#include <windows.h>
#include <io.h>
#else
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>
#endif

static bool slow_machine(void)
{
    return test_under("wine") || test_under("qemu") || test_under("valgrind") ||
           test_under("sanitizer");
}

//================================================================================================
// backoff
//================================================================================================

static netio_backoff plain_backoff(int base_ms, int cap_ms)
{
    netio_backoff b = {0};
    b.base_ms = base_ms;
    b.cap_ms = cap_ms;
    b.jitter_pct = -1;
    return b;
}

TEST(backoff, doubles_from_one_second_to_thirty)
{
    static const int want[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
    netio_backoff b = plain_backoff(0, 0);
    for (int i = 0; i < 8; i++) CHECK_EQ(want[i], netio_backoff_next(&b));
    CHECK_EQ(8, b.tries);
    b.tries = 0; // success
    CHECK_EQ(1000, netio_backoff_next(&b));
}

TEST(backoff, honours_base_and_cap)
{
    static const struct {
        int base_ms, cap_ms, want[4];
    } rows[] = {
        {1, 5, {1, 2, 4, 5}},
        {10, 250, {10, 20, 40, 80}},
        {1, 1, {1, 1, 1, 1}},
        {500, 100, {100, 100, 100, 100}}, // the cap wins
        {60000, 0, {30000, 30000, 30000, 30000}},
        {INT_MAX, INT_MAX, {INT_MAX, INT_MAX, INT_MAX, INT_MAX}},
        {INT_MAX / 2, INT_MAX, {INT_MAX / 2, INT_MAX - 1, INT_MAX, INT_MAX}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_backoff b = plain_backoff(rows[i].base_ms, rows[i].cap_ms);
        for (int k = 0; k < 4; k++) CHECK_EQ(rows[i].want[k], netio_backoff_next(&b));
    }
}

TEST(backoff, never_overflows_however_many_tries)
{
    static const int from[] = {30, 31, 32, 33, 62, 63, 64, 65, 1000, INT_MAX - 1, INT_MAX};
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        netio_backoff b = plain_backoff(3, INT_MAX);
        b.tries = from[i];
        CHECK_EQ(INT_MAX, netio_backoff_next(&b));
        CHECK_EQ(from[i] == INT_MAX ? INT_MAX : from[i] + 1, b.tries);
        b.jitter_pct = 100;
        CHECK_BETWEEN(0, INT_MAX, netio_backoff_next(&b));
    }
}

TEST(backoff, jitter_stays_in_bounds_and_below_the_cap)
{
    static const int jitters[] = {0, 1, 20, 50, 100}; // 0: 20
    for (size_t k = 0; k < sizeof jitters / sizeof jitters[0]; k++) {
        int pct = jitters[k] ? jitters[k] : 20, shorter = 0, longer = 0, at_cap = 0;
        for (uint32_t seed = 1; seed <= 300; seed++) {
            netio_backoff b = {0};
            int pause = 1000;
            b.jitter_pct = jitters[k];
            b.seed = seed;
            for (int i = 0; i < 10; i++) {
                int got = netio_backoff_next(&b), high = pause + pause / 100 * pct;
                CHECK_BETWEEN(pause - pause / 100 * pct, high < 30000 ? high : 30000, got);
                if (i == 0 && got < pause) shorter++;
                if (i == 0 && got > pause) longer++;
                if (i == 9 && got == 30000) at_cap++;
                pause = pause < 15000 ? pause * 2 : 30000;
            }
        }
        CHECK(shorter > 100 && longer > 100);
        CHECK(at_cap < 30); // clients that wait long still come back at different times
    }
}

TEST(backoff, seed_fixes_the_sequence)
{
    netio_backoff a = {0}, b = {0}, c = {0};
    int differ = 0;
    a.seed = b.seed = 77;
    c.seed = 78;
    for (int i = 0; i < 20; i++) {
        int x = netio_backoff_next(&a);
        CHECK_EQ(x, netio_backoff_next(&b));
        differ += x != netio_backoff_next(&c);
    }
    CHECK(differ > 10);
}

TEST(backoff, without_a_seed_no_two_are_alike)
{
    netio_backoff many[16];
    int differ = 0;
    memset(many, 0, sizeof many);
    for (int i = 0; i < 16; i++) {
        many[i].base_ms = many[i].cap_ms = 1000000;
        CHECK_BETWEEN(800000, 1000000, netio_backoff_next(&many[i]));
        CHECK(many[i].seed != 0);
        if (i) differ += many[i].seed != many[i - 1].seed;
    }
    CHECK_EQ(15, differ);
}

TEST(backoff, ends_after_the_last_attempt)
{
    netio_backoff b = plain_backoff(1, 1);
    b.tries_max = 10;
    for (int i = 0; i < 9; i++) CHECK_EQ(1, netio_backoff_next(&b)); // attempts 2 to 10 may follow
    for (int i = 0; i < 3; i++) CHECK_ERR(NETIO_ETIMEDOUT, netio_backoff_next(&b));
    b.tries = 0;
    CHECK_EQ(1, netio_backoff_next(&b));
    b.tries_max = 1; // a single attempt
    b.tries = 0;
    CHECK_ERR(NETIO_ETIMEDOUT, netio_backoff_next(&b));
}

TEST(backoff, refuses_senseless_fields)
{
    static const netio_backoff rows[] = {
        {-1, 0, 0, 0, 0, 1}, {0, -1, 0, 0, 0, 1}, {0, 0, -2, 0, 0, 1},      {0, 0, 101, 0, 0, 1},
        {0, 0, 0, -1, 0, 1}, {0, 0, 0, 0, -1, 1}, {INT_MIN, 0, 0, 0, 0, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_backoff b = rows[i];
        CHECK_ERR(NETIO_EINVAL, netio_backoff_next(&b));
        CHECK(b.seed == 1 && b.tries == rows[i].tries);
    }
    CHECK_ERR(NETIO_EINVAL, netio_backoff_next(NULL));
}

//================================================================================================
// bucket
//================================================================================================

static netio_bucket bucket_of(double rate, double burst)
{
    netio_bucket b = {0};
    b.rate = rate;
    b.burst = burst;
    return b;
}

TEST(bucket, five_pass_and_the_sixth_waits_200_ms)
{
    static const uint64_t begins[] = {0, 1, 123456789, (uint64_t)1 << 50};
    for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++) {
        netio_bucket b = bucket_of(5, 0);
        uint64_t now = begins[i];
        for (int k = 0; k < 5; k++) CHECK_EQ(0, netio_bucket_take(&b, 1, now));
        for (int k = 0; k < 20; k++, now += 200) { // steady from here on
            CHECK_EQ(200, netio_bucket_take(&b, 1, now));
            CHECK_EQ(200, netio_bucket_take(&b, 1, now)); // a refusal costs nothing
            CHECK_EQ(1, netio_bucket_take(&b, 1, now + 199));
            CHECK_EQ(0, netio_bucket_take(&b, 1, now + 200));
        }
    }
}

TEST(bucket, fifteen_messages_at_five_a_second_take_two_seconds)
{
    netio_bucket b = bucket_of(5, 5);
    uint64_t now = 0;
    for (int sent = 0; sent < 15;) {
        int wait_ms = netio_bucket_take(&b, 1, now);
        CHECK(wait_ms >= 0);
        if (wait_ms == 0) sent++;
        now += (uint64_t)wait_ms;
    }
    CHECK_EQ(2000, now);
}

TEST(bucket, throttles_bytes_to_a_bandwidth)
{
    netio_bucket b = bucket_of(50000, 5000); // 50 KB/s, bursts of 100 ms
    uint64_t now = 1000;
    for (int sent = 0; sent < 100000;) {
        int wait_ms = netio_bucket_take(&b, 1000, now);
        if (wait_ms == 0) sent += 1000;
        now += (uint64_t)wait_ms;
    }
    CHECK_EQ(1900, now - 1000); // 100,000 less the burst
}

TEST(bucket, saves_up_no_more_than_its_burst)
{
    static const struct {
        double rate, burst;
        int takes; // that pass at once
    } rows[] = {{5, 0, 5}, {5, 3, 3}, {1, 10, 10}, {0.1, 0, 1}, {2.5, 0, 2}, {1000, 1, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_bucket b = bucket_of(rows[i].rate, rows[i].burst);
        uint64_t now = 5000;
        for (int day = 0; day < 3; day++, now += 86400000) {
            int passed = 0;
            while (netio_bucket_take(&b, 1, now) == 0) passed++;
            CHECK_EQ(rows[i].takes, passed);
        }
    }
}

TEST(bucket, time_that_goes_backwards_counts_as_none)
{
    netio_bucket b = bucket_of(10, 1);
    CHECK_EQ(0, netio_bucket_take(&b, 1, 1000));
    CHECK_EQ(100, netio_bucket_take(&b, 1, 1000));
    CHECK_EQ(100, netio_bucket_take(&b, 1, 0));
    CHECK_EQ(50, netio_bucket_take(&b, 1, 1050));
    CHECK_EQ(50, netio_bucket_take(&b, 1, 900));
    CHECK_EQ(50, netio_bucket_take(&b, 1, 1050)); // nor does its way back count twice
    CHECK_EQ(0, netio_bucket_take(&b, 1, 1100));
}

TEST(bucket, the_wait_it_tells_is_enough_and_the_rate_is_kept)
{
    uint32_t random = 7;
    for (int round = 0; round < 200; round++) {
        double rate = 0.01 * (1 + test_random(&random) % 100000);
        double burst = 1 + test_random(&random) % 50, taken = 0;
        netio_bucket b = bucket_of(rate, burst);
        uint64_t now = test_random(&random), begin = now;
        for (int k = 0; k < 50; k++) {
            double n = 0.1 * (test_random(&random) % 11);
            int wait_ms = netio_bucket_take(&b, n, now);
            CHECK(wait_ms >= 0);
            if (wait_ms > 1) { // one ms less is not enough
                CHECK(netio_bucket_take(&b, n, now + (uint64_t)wait_ms - 1) > 0);
            }
            if (wait_ms > 0) {
                now += (uint64_t)wait_ms;
                CHECK_EQ(0, netio_bucket_take(&b, n, now));
            }
            taken += n;
            CHECK(taken <= burst + rate * (double)(now - begin) / 1000 + 1e-4);
            now += test_random(&random) % 20;
        }
    }
}

TEST(bucket, a_wait_longer_than_an_int_is_cut)
{
    netio_bucket b = bucket_of(1e-9, 1);
    CHECK_EQ(0, netio_bucket_take(&b, 1, 0));
    CHECK_EQ(INT_MAX, netio_bucket_take(&b, 1, 0));
    CHECK_EQ(INT_MAX, netio_bucket_take(&b, 1, UINT64_C(86400000)));
}

TEST(bucket, refuses_what_can_never_pass)
{
    double zero = 0, nan = zero / zero;
    netio_bucket b = bucket_of(5, 3);
    CHECK_ERR(NETIO_EINVAL, netio_bucket_take(&b, 3.5, 0)); // more than it ever holds
    CHECK_ERR(NETIO_EINVAL, netio_bucket_take(&b, -1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_bucket_take(&b, nan, 0));
    CHECK_EQ(0, netio_bucket_take(&b, 3, 0)); // and nothing was taken by that
    CHECK_EQ(0, netio_bucket_take(&b, 0, 0));
    CHECK_ERR(NETIO_EINVAL, netio_bucket_take(NULL, 1, 0));
    static const double rates[] = {0, -1, -1e300};
    for (int i = 0; i < 3; i++) {
        b = bucket_of(rates[i], 0);
        CHECK_ERR(NETIO_EINVAL, netio_bucket_take(&b, 0, 0));
    }
    b = bucket_of(nan, 0);
    CHECK_ERR(NETIO_EINVAL, netio_bucket_take(&b, 0, 0));
    b = bucket_of(1, -1);
    CHECK_ERR(NETIO_EINVAL, netio_bucket_take(&b, 0, 0));
}

//================================================================================================
// window
//================================================================================================

static netio_addr host(const char *ip)
{
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    snprintf(text, sizeof text, strchr(ip, ':') ? "[%s]:1" : "%s:1", ip);
    CHECK_OK(netio_addr_parse(&a, text, strlen(text)));
    return a;
}

static netio_addr host_number(uint32_t n) // 10.0.0.0/8
{
    netio_addr a;
    unsigned char ip[4] = {10, 0, 0, 0};
    for (int i = 1; i < 4; i++) ip[i] = (unsigned char)(n >> (24 - 8 * i));
    CHECK_OK(netio_addr_from_ip(&a, ip, 4, (uint16_t)(n * 7)));
    return a;
}

TEST(window, the_sixth_is_refused_until_the_window_has_passed)
{
    netio_window *w;
    netio_addr a = host("192.0.2.1"), b = host("192.0.2.2");
    CHECK_OK(netio_window_create(&w, 5, 30000, 100));
    for (int i = 0; i < 5; i++) CHECK_OK(netio_window_take(w, &a, 0));
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 0));
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 29999));
    CHECK_OK(netio_window_take(w, &b, 29999)); // another host is not concerned
    for (int i = 0; i < 5; i++) CHECK_OK(netio_window_take(w, &a, 30000));
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 30000));
    netio_window_destroy(w);
}

TEST(window, slides_one_by_one)
{
    netio_window *w;
    netio_addr a = host("192.0.2.1");
    CHECK_OK(netio_window_create(&w, 3, 1000, 1));
    for (uint64_t t = 0; t < 300; t += 100) CHECK_OK(netio_window_take(w, &a, 5000 + t));
    for (uint64_t t = 300; t < 1000; t += 100)
        CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 5000 + t));
    for (uint64_t t = 1000; t < 1300; t += 100) { // each frees the place of one
        CHECK_OK(netio_window_take(w, &a, 5000 + t));
        CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 5000 + t));
    }
    netio_window_destroy(w);
}

TEST(window, defaults_are_ten_a_minute)
{
    netio_window *w;
    netio_addr a = host("2001:db8::1");
    CHECK_OK(netio_window_create(&w, 0, 0, 0));
    for (int i = 0; i < 10; i++) CHECK_OK(netio_window_take(w, &a, 1));
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 60000));
    CHECK_OK(netio_window_take(w, &a, 60001));
    netio_window_destroy(w);
}

TEST(window, hosts_are_ipv4_addresses_and_ipv6_64s)
{
    static const struct {
        const char *first, *second;
        bool same;
    } rows[] = {
        {"192.0.2.1", "192.0.2.1", true},
        {"192.0.2.1", "192.0.2.2", false},
        {"192.0.2.1", "::ffff:192.0.2.1", true}, // mapped is the same host
        {"::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
        {"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
        {"2001:db8:1:2::1", "2001:db8:1:3::1", false},
        {"2001:db8::1", "2001:db9::1", false},
        {"0.0.0.1", "::1", false},
        {"0.0.0.1", "0:0:0:1::", false},
        {"192.0.2.1", "c000:201::", false},
        {"192.0.2.1", "0:0:c000:201::", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_window *w;
        netio_addr a = host(rows[i].first), b = host(rows[i].second);
        netio_addr_set_port(&b, 4242); // ports do not matter
        CHECK_OK(netio_window_create(&w, 1, 1000, 10));
        CHECK_OK(netio_window_take(w, &a, 0));
        CHECK_ERR(rows[i].same ? NETIO_EBUSY : 0, netio_window_take(w, &b, 0));
        netio_window_destroy(w);
    }
}

TEST(window, refuses_what_is_no_ip_address)
{
    netio_window *w;
    netio_addr none, path;
    memset(&none, 0, sizeof none);
    CHECK_OK(netio_window_create(&w, 1, 1000, 10));
    CHECK_ERR(NETIO_EINVAL, netio_window_take(w, &none, 0));
    CHECK_ERR(NETIO_EINVAL, netio_window_take(w, NULL, 0));
    if (netio_addr_parse(&path, "unix:/x", 7) == 0)
        CHECK_ERR(NETIO_EINVAL, netio_window_take(w, &path, 0));
    none = host("192.0.2.1");
    CHECK_ERR(NETIO_EINVAL, netio_window_take(NULL, &none, 0));
    netio_window_destroy(w);
}

TEST(window, a_full_table_forgets_who_is_quiet_longest)
{
    netio_window *w;
    netio_addr a = host("10.0.0.1"), b = host("10.0.0.2"), c = host("10.0.0.3");
    netio_addr d = host("10.0.0.4");
    CHECK_OK(netio_window_create(&w, 1, 1000, 3));
    CHECK_OK(netio_window_take(w, &a, 0));
    CHECK_OK(netio_window_take(w, &b, 1));
    CHECK_OK(netio_window_take(w, &c, 2));
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 3)); // refused, but not quiet
    CHECK_OK(netio_window_take(w, &d, 4));               // in the place of b
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 5));
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &c, 6));
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &d, 7));
    CHECK_OK(netio_window_take(w, &b, 8)); // as if never seen; in the place of a
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &c, 9));
    CHECK_OK(netio_window_take(w, &a, 10)); // in the place of d
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &b, 11));
    netio_window_destroy(w);
}

// The plainest form of the same rules: lists that are searched and moved as a whole.
enum { PLAIN_HOSTS = 20, PLAIN_TIMES = 5 };
typedef struct plain_window {
    struct {
        uint32_t who;
        uint64_t at[PLAIN_TIMES];
        size_t count;
    } host[PLAIN_HOSTS]; // the one that is quiet longest stands first
    size_t count, hosts_max, per_host;
    uint64_t window_ms;
} plain_window;

static int plain_take(plain_window *w, uint32_t who, uint64_t now)
{
    size_t i = 0, n, keep = 0;
    while (i < w->count && w->host[i].who != who) i++;
    if (i == w->count && w->count == w->hosts_max) i = 0;
    else if (i == w->count) w->count++;
    if (w->host[i].who != who) w->host[i].count = 0;
    for (n = i; n + 1 < w->count; n++) { // to the end
        plain_window save = *w;
        w->host[n] = save.host[n + 1];
        w->host[n + 1] = save.host[n];
    }
    w->host[n].who = who;
    for (i = 0; i < w->host[n].count; i++) // forget what the window has left behind
        if (now - w->host[n].at[i] < w->window_ms) w->host[n].at[keep++] = w->host[n].at[i];
    w->host[n].count = keep;
    if (keep == w->per_host) return NETIO_EBUSY;
    w->host[n].at[w->host[n].count++] = now;
    return 0;
}

TEST(window, agrees_with_a_plain_model)
{
    uint32_t random = 11;
    int refused = 0, allowed = 0;
    for (int round = 0; round < 60; round++) {
        netio_window *w;
        plain_window plain;
        uint64_t now = test_random(&random);
        memset(&plain, 0, sizeof plain);
        plain.hosts_max = 1 + test_random(&random) % PLAIN_HOSTS;
        plain.per_host = 1 + test_random(&random) % PLAIN_TIMES;
        plain.window_ms = 1 + test_random(&random) % 300;
        uint32_t hosts = 1 + test_random(&random) % 30, pace = 1 + test_random(&random) % 20;
        CHECK_OK(netio_window_create(&w, plain.per_host, (int)plain.window_ms, plain.hosts_max));
        for (int i = 0; i < 400; i++) {
            uint32_t who = 1 + test_random(&random) % hosts;
            netio_addr a = host_number(who);
            int want = plain_take(&plain, who, now);
            CHECK_ERR(want, netio_window_take(w, &a, now));
            if (want) refused++;
            else allowed++;
            now += test_random(&random) % pace;
        }
        netio_window_destroy(w);
    }
    CHECK(refused > 1000 && allowed > 1000);
}

TEST(window, time_that_goes_backwards_counts_as_none)
{
    netio_window *w;
    netio_addr a = host("192.0.2.1"), b = host("192.0.2.2");
    CHECK_OK(netio_window_create(&w, 1, 1000, 10));
    CHECK_OK(netio_window_take(w, &a, 5000));
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 0));
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &a, 4000));
    CHECK_OK(netio_window_take(w, &b, 0)); // counts as at 5000
    CHECK_ERR(NETIO_EBUSY, netio_window_take(w, &b, 5999));
    CHECK_OK(netio_window_take(w, &b, 6000));
    CHECK_OK(netio_window_take(w, &a, 6000));
    netio_window_destroy(w);
}

TEST(window, takes_its_memory_once_and_stays_quick_when_full)
{
    netio_window *w;
    long allocs = test_allocs();
    uint32_t count = slow_machine() ? 100000 : 1000000;
    uint64_t begin;
    CHECK_OK(netio_window_create(&w, 5, 30000, 10000));
    CHECK_EQ(allocs + 1, test_allocs());
    begin = test_ms();
    for (uint32_t i = 0; i < count; i++) { // a flood from addresses that never come back
        netio_addr a = host_number(i);
        CHECK_OK(netio_window_take(w, &a, i / 1000));
    }
    CHECK(test_ms() - begin < 8000); // a search of the table would take minutes
    CHECK_EQ(allocs + 1, test_allocs());
    netio_window_destroy(w);
}

TEST(window, refuses_senseless_sizes)
{
    static const struct {
        size_t per_host, hosts_max;
        int window_ms, want;
    } rows[] = {
        {1, 1, -1, NETIO_EINVAL},
        {((size_t)1 << 20) + 1, 1, 1, NETIO_EINVAL},
        {1, ((size_t)1 << 24) + 1, 1, NETIO_EINVAL},
        {SIZE_MAX, SIZE_MAX, 1, NETIO_EINVAL},
        {(size_t)1 << 20, 1, 1, 0},
        {1, 1, INT_MAX, 0},
    };
    netio_window *w;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        w = NULL;
        int err = netio_window_create(&w, rows[i].per_host, rows[i].window_ms, rows[i].hosts_max);
        CHECK_ERR(rows[i].want, err);
        CHECK((w != NULL) == (err == 0));
        netio_window_destroy(w);
    }
    CHECK_ERR(NETIO_EINVAL, netio_window_create(NULL, 1, 1, 1));
}

TEST(window, survives_a_failed_allocation)
{
    netio_window *w = NULL;
    test_alloc_fail_at(1);
    CHECK_ERR(NETIO_ENOMEM, netio_window_create(&w, 5, 1000, 100));
    CHECK(w == NULL);
    CHECK_OK(netio_window_create(&w, 5, 1000, 100));
    netio_window_destroy(w);
}

//================================================================================================
// heartbeat
//================================================================================================

static netio_heartbeat heartbeat_of(int interval_ms, int limit_ms)
{
    netio_heartbeat h = {0};
    h.interval_ms = interval_ms;
    h.limit_ms = limit_ms;
    return h;
}

// Ticks each millisecond of [from, to], and wants `ping` or `dead` at their times and nothing else.
static void run_heartbeat(netio_heartbeat *h, uint64_t from, uint64_t to, const uint64_t *pings,
                          size_t count, uint64_t dead)
{
    for (uint64_t now = from; now <= to; now++) {
        int want = now >= dead ? NETIO_HEARTBEAT_DEAD : 0;
        for (size_t i = 0; i < count; i++)
            if (pings[i] == now) want = NETIO_HEARTBEAT_PING;
        if (netio_heartbeat_tick(h, now) != want) CHECK_EQ(-1, now);
    }
}

TEST(heartbeat, no_answer_is_dead_at_the_first_ping_plus_limit)
{
    static const uint64_t begins[] = {0, 1, 1000000, (uint64_t)1 << 40};
    for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++) {
        netio_heartbeat h = heartbeat_of(5000, 2000);
        uint64_t t = begins[i], ping = t + 5000;
        run_heartbeat(&h, t, t + 9000, &ping, 1, t + 7000);
    }
}

TEST(heartbeat, later_pings_do_not_put_the_end_off)
{
    netio_heartbeat h = heartbeat_of(5000, 15000);
    static const uint64_t pings[] = {5000, 10000, 15000};
    run_heartbeat(&h, 0, 25000, pings, 3, 20000);
}

TEST(heartbeat, whatever_arrives_clears_it)
{
    netio_heartbeat h = heartbeat_of(50, 20);
    static const uint64_t pings[] = {50, 119, 189};
    run_heartbeat(&h, 0, 69, pings, 1, UINT64_MAX);
    netio_heartbeat_seen(&h, 69); // the pong, at the last moment
    run_heartbeat(&h, 69, 138, pings, 3, UINT64_MAX);
    netio_heartbeat_seen(&h, 139); // it came, but nobody had looked before the limit
    run_heartbeat(&h, 139, 209, pings, 3, 209);
    netio_heartbeat_seen(&h, 300); // dead it was; whoever speaks lives
    CHECK_EQ(0, netio_heartbeat_tick(&h, 349));
    CHECK_EQ(NETIO_HEARTBEAT_PING, netio_heartbeat_tick(&h, 350));
}

TEST(heartbeat, traffic_needs_no_pings)
{
    netio_heartbeat h = heartbeat_of(100, 10);
    for (uint64_t now = 0; now < 5000; now++) {
        if (now % 99 == 0) netio_heartbeat_seen(&h, now);
        CHECK_EQ(0, netio_heartbeat_tick(&h, now));
    }
}

TEST(heartbeat, a_late_timer_asks_before_it_buries)
{
    netio_heartbeat h = heartbeat_of(5000, 2000);
    CHECK_EQ(0, netio_heartbeat_tick(&h, 0));
    CHECK_EQ(NETIO_HEARTBEAT_PING, netio_heartbeat_tick(&h, 3600000)); // the laptop slept
    CHECK_EQ(0, netio_heartbeat_tick(&h, 3601999));
    CHECK_EQ(NETIO_HEARTBEAT_DEAD, netio_heartbeat_tick(&h, 3602000));
}

TEST(heartbeat, time_that_goes_backwards_counts_as_none)
{
    netio_heartbeat h = heartbeat_of(100, 50);
    CHECK_EQ(0, netio_heartbeat_tick(&h, 1000));
    CHECK_EQ(0, netio_heartbeat_tick(&h, 10));
    netio_heartbeat_seen(&h, 10); // not earlier than what it knows
    CHECK_EQ(0, netio_heartbeat_tick(&h, 1099));
    CHECK_EQ(NETIO_HEARTBEAT_PING, netio_heartbeat_tick(&h, 1100));
    CHECK_EQ(0, netio_heartbeat_tick(&h, 10));
    CHECK_EQ(0, netio_heartbeat_tick(&h, 1149));
    CHECK_EQ(NETIO_HEARTBEAT_DEAD, netio_heartbeat_tick(&h, 1150));
}

TEST(heartbeat, refuses_times_that_are_not_positive)
{
    static const int rows[][2] = {{0, 1}, {1, 0}, {-1, 1}, {1, -1}, {0, 0}, {INT_MIN, INT_MIN}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_heartbeat h = heartbeat_of(rows[i][0], rows[i][1]);
        CHECK_ERR(NETIO_EINVAL, netio_heartbeat_tick(&h, 0));
    }
    CHECK_ERR(NETIO_EINVAL, netio_heartbeat_tick(NULL, 0));
}

//================================================================================================
// waiting for a server
//================================================================================================

typedef struct late_server {
    char address[NETIO_ADDR_TEXT];
    int late_ms, err;
} late_server;

// Starts late, and serves one that comes and goes.
static void serve_late(void *arg)
{
    late_server *l = (late_server *)arg;
    netio_socket listener, s;
    char byte;
    test_sleep_ms(l->late_ms);
    l->err = netio_listen(&listener, l->address, NULL);
    if (l->err < 0) return;
    l->err = netio_accept(&s, listener, NULL, 10000);
    if (l->err == 0) {
        ptrdiff_t n = netio_recv(s, &byte, 1, 5000);
        l->err = n == NETIO_EOF || n == NETIO_ECONNRESET ? 0 : (int)n;
        netio_close(&s);
    }
    netio_close(&listener);
}

// An address of this machine on which nobody listens.
static void nobody(char text[NETIO_ADDR_TEXT])
{
    netio_socket s;
    test_listen(&s, text, "127.0.0.1:0");
    CHECK_OK(netio_close(&s));
}

static void wait_for_late_server(late_server *l)
{
    test_thread thread;
    uint64_t begin = test_ms();
    int err;
    l->late_ms = 300;
    test_thread_start(&thread, serve_late, l);
    err = netio_wait_listening(l->address, 20000);
    begin = test_ms() - begin;
    test_thread_join(&thread);
    if (l->err == NETIO_ENOTSUP || l->err == NETIO_EAFNOSUPPORT) SKIP("no Unix sockets here");
    CHECK_OK(err);
    CHECK_OK(l->err);
    CHECK_BETWEEN(290, 8000, begin);
}

TEST(wait_listening, returns_when_the_server_has_started)
{
    late_server l;
    nobody(l.address);
    wait_for_late_server(&l);
}

TEST(wait_listening, waits_for_the_file_of_a_unix_socket)
{
    late_server l;
    if (test_under("wine")) SKIP("Wine has no Unix sockets");
    snprintf(l.address, sizeof l.address, "unix:%s", test_path("late"));
    wait_for_late_server(&l);
}

TEST(wait_listening, sees_at_once_who_listens_already)
{
    netio_socket listener, s;
    char text[NETIO_ADDR_TEXT];
    uint64_t begin = test_ms();
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_wait_listening(text, 10000));
    CHECK_OK(netio_wait_listening(text, -1));
    CHECK(test_ms() - begin < 5000);
    CHECK_OK(netio_accept(&s, listener, NULL, 5000));
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&listener));
}

TEST(wait_listening, never_started_times_out_after_few_attempts)
{
    char text[NETIO_ADDR_TEXT];
    uint64_t begin = test_ms();
    long attempts;
    nobody(text);
    attempts = test_ops(NETIO_OP_OPEN);
    CHECK_ERR(NETIO_ETIMEDOUT, netio_wait_listening(text, 700));
    CHECK_BETWEEN(700, 6000, test_ms() - begin);
    // At 0, 10, 30, 70, 150, 310, 560 ms; what is refused late comes to fewer.
    CHECK_BETWEEN(1, 7, test_ops(NETIO_OP_OPEN) - attempts);
}

TEST(wait_listening, with_no_time_tries_once)
{
    char text[NETIO_ADDR_TEXT];
    long attempts;
    int err;
    nobody(text);
    attempts = test_ops(NETIO_OP_OPEN);
    err = netio_wait_listening(text, 0);
    CHECK(err == NETIO_EAGAIN || err == NETIO_ECONNREFUSED);
    CHECK_EQ(1, test_ops(NETIO_OP_OPEN) - attempts);
}

TEST(wait_listening, what_cannot_come_true_fails_at_once)
{
    static const struct {
        const char *address;
        int want;
    } rows[] = {
        {"127.0.0.1", NETIO_EINVAL},
        {"", NETIO_EINVAL},
        {"127.0.0.1:99999", NETIO_EINVAL},
        {"1.2.3:80", NETIO_EINVAL},
        {"127.0.0.1:no-such-service", NETIO_ENOENT},
    };
    uint64_t begin = test_ms();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_ERR(rows[i].want, netio_wait_listening(rows[i].address, 60000));
    CHECK_ERR(NETIO_EINVAL, netio_wait_listening(NULL, 60000));
    CHECK(test_ms() - begin < 20000);
}

TEST(wait_listening, a_name_that_does_not_exist_fails_at_once)
{
    static const char name[] = "no-such-host.invalid:80"; // RFC 6761
    netio_addr a;
    uint64_t begin;
    ptrdiff_t n = netio_resolve(name, &a, 1, NULL, 5000);
    if (n != NETIO_EAI_NONAME) SKIP("this machine's resolver says %s", netio_errname(n));
    begin = test_ms();
    CHECK_ERR(NETIO_EAI_NONAME, netio_wait_listening(name, 60000));
    CHECK(test_ms() - begin < 20000);
}

#ifndef _WIN32
static void interrupted(int number) { (void)number; }

TEST(wait_listening, a_storm_of_signals_makes_no_storm_of_attempts)
{
    struct itimerval every;
    struct sigaction act, before;
    char text[NETIO_ADDR_TEXT];
    long attempts;
    int err;
    memset(&act, 0, sizeof act);
    memset(&every, 0, sizeof every);
    act.sa_handler = interrupted;
    every.it_interval.tv_usec = every.it_value.tv_usec = 1000;
    nobody(text);
    attempts = test_ops(NETIO_OP_OPEN);
    CHECK_EQ(0, sigaction(SIGALRM, &act, &before));
    CHECK_EQ(0, setitimer(ITIMER_REAL, &every, NULL));
    err = netio_wait_listening(text, 300);
    memset(&every, 0, sizeof every);
    setitimer(ITIMER_REAL, &every, NULL);
    sigaction(SIGALRM, &before, NULL);
    CHECK_ERR(NETIO_ETIMEDOUT, err);
    CHECK_BETWEEN(1, 6, test_ops(NETIO_OP_OPEN) - attempts);
}
#else
TEST(wait_listening, a_storm_of_signals_makes_no_storm_of_attempts) { SKIP("no signals here"); }
#endif

//================================================================================================
// receiving into a file
//================================================================================================

#ifndef _WIN32
static netio_file os_file(FILE *f) { return fileno(f); }
static int64_t os_position(FILE *f) { return (int64_t)lseek(fileno(f), 0, SEEK_CUR); }
static int os_seek(FILE *f, uint64_t off) { return fseeko(f, (off_t)off, SEEK_SET); }
static int64_t os_size(FILE *f) { return (int64_t)lseek(fileno(f), 0, SEEK_END); }
static bool os_pipe(netio_file out[2]) { return pipe(out) == 0; }
static void os_file_close(netio_file f) { close(f); }
#else
static netio_file os_file(FILE *f) { return (netio_file)_get_osfhandle(_fileno(f)); }
static int64_t os_position(FILE *f) { return _telli64(_fileno(f)); }
static int os_seek(FILE *f, uint64_t off) { return _fseeki64(f, (int64_t)off, SEEK_SET); }
static int64_t os_size(FILE *f) { return _lseeki64(_fileno(f), 0, SEEK_END); }
static bool os_pipe(netio_file out[2])
{
    HANDLE r, w;
    if (!CreatePipe(&r, &w, NULL, 65536)) return false;
    out[0] = (netio_file)r;
    out[1] = (netio_file)w;
    return true;
}
static void os_file_close(netio_file f) { CloseHandle((HANDLE)f); }
#endif

static FILE *new_file(void)
{
    FILE *f = fopen(test_path("file"), "wb+");
    CHECK(f != NULL);
    return f;
}

static void file_end(FILE *f)
{
    fclose(f);
    remove(test_path("file"));
}

static uint64_t hash(uint64_t h, const unsigned char *p, size_t len)
{
    for (size_t i = 0; i < len; i++) h = (h ^ p[i]) * UINT64_C(1099511628211);
    return h;
}

static uint64_t file_hash(FILE *f, uint64_t off, uint64_t len)
{
    static unsigned char buf[65536];
    uint64_t h = 0;
    CHECK_EQ(0, fflush(f));
    CHECK_EQ(0, os_seek(f, off));
    for (uint64_t at = 0; at < len;) {
        size_t want = len - at < sizeof buf ? (size_t)(len - at) : sizeof buf;
        size_t n = fread(buf, 1, want, f);
        CHECK(n > 0);
        h = hash(h, buf, n);
        at += n;
    }
    return h;
}

typedef struct sender {
    netio_socket s;
    const unsigned char *data;
    size_t len;
    int err;
    bool end; // FIN after it
} sender;

static void send_it(void *arg)
{
    sender *out = (sender *)arg;
    out->err = netio_send_all(out->s, out->data, out->len, NULL, 20000);
    if (out->err == 0 && out->end) out->err = netio_shutdown(out->s, NETIO_SHUT_WRITE);
}

TEST(recvfile, a_large_file_arrives_whole)
{
    enum { LEN = 3 << 20 };
    static unsigned char data[LEN];
    static const uint64_t lens[] = {UINT64_MAX, LEN};
    test_fill(data, LEN, 42);
    for (int i = 0; i < 2; i++) {
        netio_socket client, server;
        test_thread thread;
        sender out = {0};
        uint64_t done = 0;
        FILE *f = new_file();
        int64_t position;
        int err;
        CHECK_EQ(0, os_seek(f, 77));
        position = os_position(f);
        test_tcp_pair(&client, &server);
        out.s = client;
        out.data = data;
        out.len = LEN;
        out.end = lens[i] == UINT64_MAX;
        test_thread_start(&thread, send_it, &out);
        err = netio_recvfile(server, os_file(f), 0, lens[i], &done, 20000);
        test_thread_join(&thread);
        CHECK_OK(err);
        CHECK_OK(out.err);
        CHECK_EQ(LEN, done);
        CHECK_EQ(position, os_position(f)); // it was not moved
        CHECK_EQ(LEN, os_size(f));
        CHECK(hash(0, data, LEN) == file_hash(f, 0, LEN));
        file_end(f);
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
    }
}

TEST(recvfile, takes_its_length_and_leaves_the_rest)
{
    static const size_t lens[] = {1, 0, 4095, 16384, 16385, 1, 33000};
    static unsigned char data[100000];
    netio_socket client, server;
    FILE *f = new_file();
    size_t at = 0;
    char next;
    test_fill(data, sizeof data, 5);
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_send_all(client, data, sizeof data, NULL, 5000));
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        uint64_t done = 99;
        CHECK_OK(netio_recvfile(server, os_file(f), at, lens[i], &done, 5000));
        CHECK_EQ(lens[i], done);
        at += lens[i];
    }
    CHECK_EQ(at, os_size(f));
    CHECK(hash(0, data, at) == file_hash(f, 0, at));
    CHECK_EQ(1, netio_recv(server, &next, 1, 5000));
    CHECK_EQ((char)data[at], next);
    CHECK_OK(netio_recvfile(server, os_file(f), 0, 1, NULL, 5000)); // `done` may be NULL
    file_end(f);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(recvfile, beyond_two_and_four_gigabytes)
{
    static const uint64_t holes[] = {((uint64_t)1 << 31) - 100, ((uint64_t)1 << 32) + 5000};
    static unsigned char data[50000];
    netio_socket client, server;
    test_fill(data, sizeof data, 9);
    test_tcp_pair(&client, &server);
    for (int i = 0; i < 2; i++) {
        FILE *f = new_file(); // sparse
        uint64_t done = 0;
        CHECK_OK(netio_send_all(client, data, sizeof data, NULL, 5000));
        CHECK_OK(netio_recvfile(server, os_file(f), holes[i], sizeof data, &done, 5000));
        CHECK_EQ(sizeof data, done);
        CHECK_EQ(holes[i] + sizeof data, os_size(f));
        CHECK(hash(0, data, sizeof data) == file_hash(f, holes[i], sizeof data));
        file_end(f);
    }
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(recvfile, tells_how_far_it_got_when_the_stream_ends)
{
    static const struct {
        size_t sent;
        uint64_t len;
        int want;
    } rows[] = {
        {0, 10, NETIO_EOF},     {0, UINT64_MAX, 0}, {5, 10, NETIO_ETRUNCATED},
        {5, UINT64_MAX, 0},     {5, 5, 0},          {20000, 20001, NETIO_ETRUNCATED},
        {20000, UINT64_MAX, 0},
    };
    static unsigned char data[20000];
    test_fill(data, sizeof data, 3);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_socket client, server;
        uint64_t done = 99;
        FILE *f = new_file();
        test_tcp_pair(&client, &server);
        CHECK_OK(netio_send_all(client, data, rows[i].sent, NULL, 5000));
        CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE));
        CHECK_ERR(rows[i].want, netio_recvfile(server, os_file(f), 0, rows[i].len, &done, 5000));
        CHECK_EQ(rows[i].sent, done);
        CHECK_EQ(rows[i].sent, os_size(f));
        CHECK(hash(0, data, rows[i].sent) == file_hash(f, 0, rows[i].sent));
        file_end(f);
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
    }
}

TEST(recvfile, a_reset_is_no_end)
{
    netio_socket client, server;
    uint64_t done = 99;
    FILE *f = new_file();
    int err;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_abort(&client));
    err = netio_recvfile(server, os_file(f), 0, UINT64_MAX, &done, 5000);
    CHECK(err == NETIO_ECONNRESET || (err == 0 && test_under("wine"))); // which makes it an end
    CHECK_EQ(0, done);
    file_end(f);
    CHECK_OK(netio_close(&server));
}

TEST(recvfile, ends_on_time_with_what_has_come)
{
    netio_socket client, server;
    uint64_t done = 99, begin;
    FILE *f = new_file();
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EAGAIN, netio_recvfile(server, os_file(f), 0, 10, &done, 0));
    CHECK_EQ(0, done);
    begin = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recvfile(server, os_file(f), 0, 10, &done, 100));
    CHECK_BETWEEN(99, 5000, test_ms() - begin);
    CHECK_EQ(0, done);
    CHECK_OK(netio_send_all(client, "hello", 5, NULL, 1000));
    CHECK(netio_wait(server, NETIO_EV_READ, 5000) > 0);
    begin = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recvfile(server, os_file(f), 0, UINT64_MAX, &done, 100));
    CHECK_BETWEEN(99, 5000, test_ms() - begin);
    CHECK_EQ(5, done);
    CHECK_OK(netio_send_all(client, "world", 5, NULL, 1000)); // it goes on where it stopped
    CHECK_OK(netio_recvfile(server, os_file(f), done, 5, &done, 5000));
    CHECK(hash(0, (const unsigned char *)"helloworld", 10) == file_hash(f, 0, 10));
    file_end(f);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

static void send_without_end(void *arg) // until the peer has gone
{
    sender *out = (sender *)arg;
    while (netio_send(out->s, out->data, out->len, 10000) > 0) {}
}

TEST(recvfile, a_fast_peer_cannot_stretch_the_time)
{
    static const unsigned char data[1 << 18];
    netio_socket client, server;
    test_thread thread;
    sender out = {0};
    uint64_t done = 0, begin;
    FILE *f = new_file();
    int err;
    test_tcp_pair(&client, &server);
    out.s = client;
    out.data = data;
    out.len = sizeof data;
    test_thread_start(&thread, send_without_end, &out);
    begin = test_ms();
    err = netio_recvfile(server, os_file(f), 0, UINT64_MAX, &done, 50);
    begin = test_ms() - begin;
    netio_abort(&server);
    test_thread_join(&thread);
    CHECK_ERR(NETIO_ETIMEDOUT, err);
    CHECK_BETWEEN(49, 5000, begin);
    CHECK(done > 0);
    CHECK_EQ(done, os_size(f));
    file_end(f);
    CHECK_OK(netio_close(&client));
}

#ifdef __linux__
TEST(recvfile, a_full_disk_is_an_error)
{
    netio_socket client, server;
    uint64_t done = 99;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    if (full < 0) SKIP("there is no /dev/full");
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_send_all(client, "hello", 5, NULL, 1000));
    CHECK_ERR(NETIO_EIO, netio_recvfile(server, full, 0, 5, &done, 5000));
    CHECK_EQ(ENOSPC, netio_os_error());
    CHECK_EQ(0, done);
    close(full);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}
#else
TEST(recvfile, a_full_disk_is_an_error) { SKIP("there is no /dev/full"); }
#endif

#ifndef _WIN32
// A limit on the size of files stands for a disk that fills up in the middle of a piece.
TEST(recvfile, tells_how_much_a_full_file_took)
{
    static unsigned char data[10000];
    struct rlimit before, limit;
    netio_socket client, server;
    uint64_t done = 99;
    FILE *f = new_file();
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    int err, code;
    test_fill(data, sizeof data, 8);
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_send_all(client, data, sizeof data, NULL, 1000));
    CHECK_EQ(0, getrlimit(RLIMIT_FSIZE, &before));
    limit = before;
    limit.rlim_cur = 7000;
    CHECK_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
    err = netio_recvfile(server, os_file(f), 1000, sizeof data, &done, 5000);
    code = netio_os_error();
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    CHECK_ERR(NETIO_EIO, err);
    CHECK_EQ(EFBIG, code);
    CHECK_EQ(6000, done);
    CHECK_EQ(7000, os_size(f));
    CHECK(hash(0, data, 6000) == file_hash(f, 1000, 6000));
    file_end(f);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}
#else
TEST(recvfile, tells_how_much_a_full_file_took) { SKIP("no limit of file sizes here"); }
#endif

TEST(recvfile, refuses_what_cannot_be)
{
    netio_socket client, server, dgram[2], gone;
    netio_file ends[2] = {0, 0};
    uint64_t done = 99;
    FILE *f = new_file(), *reader;
    int err;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_send_all(client, "hello, all", 10, NULL, 1000));
    CHECK(netio_wait(server, NETIO_EV_READ, 5000) > 0);

    // Before anything is received.
    CHECK_ERR(NETIO_EINVAL, netio_recvfile(server, os_file(f), UINT64_MAX, 1, &done, 1000));
    CHECK_ERR(NETIO_EINVAL, netio_recvfile(server, os_file(f), (uint64_t)1 << 63, 1, &done, 1000));
    CHECK_ERR(NETIO_EINVAL, netio_recvfile(server, os_file(f), INT64_MAX, 1, &done, 1000));
    CHECK_ERR(NETIO_EINVAL, netio_recvfile(server, os_file(f), 2, INT64_MAX - 1, &done, 1000));
    CHECK_EQ(0, done);
    CHECK_OK(netio_pair(dgram, NETIO_DGRAM));
    CHECK_ERR(NETIO_EINVAL, netio_recvfile(dgram[0], os_file(f), 0, 1, &done, 1000));
    CHECK_OK(netio_close(&dgram[0]));
    CHECK_OK(netio_close(&dgram[1]));
    gone = NETIO_INVALID_SOCKET;
    CHECK_ERR(NETIO_EBADF, netio_recvfile(gone, os_file(f), 0, 1, &done, 1000));

    // A file that is none, takes nothing, or has no positions.
    CHECK_ERR(NETIO_EBADF, netio_recvfile(server, (netio_file)-1, 0, 1, &done, 1000));
    reader = fopen(test_path("file"), "rb");
    CHECK(reader != NULL);
    err = netio_recvfile(server, os_file(reader), 0, 1, &done, 1000);
    CHECK(err == NETIO_EBADF || err == NETIO_EACCES);
    fclose(reader);
    CHECK(os_pipe(ends));
    CHECK_ERR(NETIO_ENOTSUP, netio_recvfile(server, ends[1], 0, 1, &done, 1000));
    os_file_close(ends[0]);
    os_file_close(ends[1]);
    CHECK_EQ(0, done);
    CHECK_EQ(0, os_size(f));
    file_end(f);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

// clang-format off
TEST_MAIN("helper",
    T(backoff, doubles_from_one_second_to_thirty),
    T(backoff, honours_base_and_cap),
    T(backoff, never_overflows_however_many_tries),
    T(backoff, jitter_stays_in_bounds_and_below_the_cap),
    T(backoff, seed_fixes_the_sequence),
    T(backoff, without_a_seed_no_two_are_alike),
    T(backoff, ends_after_the_last_attempt),
    T(backoff, refuses_senseless_fields),
    T(bucket, five_pass_and_the_sixth_waits_200_ms),
    T(bucket, fifteen_messages_at_five_a_second_take_two_seconds),
    T(bucket, throttles_bytes_to_a_bandwidth),
    T(bucket, saves_up_no_more_than_its_burst),
    T(bucket, time_that_goes_backwards_counts_as_none),
    T(bucket, the_wait_it_tells_is_enough_and_the_rate_is_kept),
    T(bucket, a_wait_longer_than_an_int_is_cut),
    T(bucket, refuses_what_can_never_pass),
    T(window, the_sixth_is_refused_until_the_window_has_passed),
    T(window, slides_one_by_one),
    T(window, defaults_are_ten_a_minute),
    T(window, hosts_are_ipv4_addresses_and_ipv6_64s),
    T(window, refuses_what_is_no_ip_address),
    T(window, a_full_table_forgets_who_is_quiet_longest),
    T(window, agrees_with_a_plain_model),
    T(window, time_that_goes_backwards_counts_as_none),
    T(window, takes_its_memory_once_and_stays_quick_when_full),
    T(window, refuses_senseless_sizes),
    T(window, survives_a_failed_allocation),
    T(heartbeat, no_answer_is_dead_at_the_first_ping_plus_limit),
    T(heartbeat, later_pings_do_not_put_the_end_off),
    T(heartbeat, whatever_arrives_clears_it),
    T(heartbeat, traffic_needs_no_pings),
    T(heartbeat, a_late_timer_asks_before_it_buries),
    T(heartbeat, time_that_goes_backwards_counts_as_none),
    T(heartbeat, refuses_times_that_are_not_positive),
    T(wait_listening, returns_when_the_server_has_started),
    T(wait_listening, waits_for_the_file_of_a_unix_socket),
    T(wait_listening, sees_at_once_who_listens_already),
    T(wait_listening, never_started_times_out_after_few_attempts),
    T(wait_listening, with_no_time_tries_once),
    T(wait_listening, what_cannot_come_true_fails_at_once),
    T(wait_listening, a_name_that_does_not_exist_fails_at_once),
    T(wait_listening, a_storm_of_signals_makes_no_storm_of_attempts),
    T(recvfile, a_large_file_arrives_whole),
    T(recvfile, takes_its_length_and_leaves_the_rest),
    T(recvfile, beyond_two_and_four_gigabytes),
    T(recvfile, tells_how_far_it_got_when_the_stream_ends),
    T(recvfile, a_reset_is_no_end),
    T(recvfile, ends_on_time_with_what_has_come),
    T(recvfile, a_fast_peer_cannot_stretch_the_time),
    T(recvfile, a_full_disk_is_an_error),
    T(recvfile, tells_how_much_a_full_file_took),
    T(recvfile, refuses_what_cannot_be))
