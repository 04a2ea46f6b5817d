// BACKENDS: all
//
// Names looked up by a loop. The test's own resolver answers, fails, or hangs at a gate, on the
// threads that the loop starts for it; the loop must not notice.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <dirent.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

enum { LONG_MS = 10000 };

#ifdef NETIO_NO_THREADS
enum { HAS_THREADS = 0 };
#else
enum { HAS_THREADS = 1 };
#endif

static void need_threads(void)
{
    if (!HAS_THREADS) SKIP("built without threads");
}

//================================================================================================
// Systems: a lock with a condition, the thread we are on, how many there are
//================================================================================================

#ifdef _WIN32
static SRWLOCK lock = SRWLOCK_INIT;
static CONDITION_VARIABLE changed = CONDITION_VARIABLE_INIT;
static void locked(void) { AcquireSRWLockExclusive(&lock); }
static void unlocked(void) { ReleaseSRWLockExclusive(&lock); }
static void wait_change(void) { SleepConditionVariableSRW(&changed, &lock, INFINITE, 0); }
static void tell_change(void) { WakeAllConditionVariable(&changed); }
static uint64_t this_thread(void) { return GetCurrentThreadId(); }
#else
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static void locked(void) { pthread_mutex_lock(&lock); }
static void unlocked(void) { pthread_mutex_unlock(&lock); }
static void wait_change(void) { pthread_cond_wait(&changed, &lock); }
static void tell_change(void) { pthread_cond_broadcast(&changed); }

static uint64_t this_thread(void)
{
    pthread_t self = pthread_self();
    uint64_t id = 0;
    memcpy(&id, &self, sizeof self < sizeof id ? sizeof self : sizeof id);
    return id;
}
#endif

#ifdef __linux__
static int threads(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}
#else
static int threads(void) { return 0; } // not counted
#endif

//================================================================================================
// The resolver
//================================================================================================

static struct {
    bool gate_open;
    int waiting; // at the gate
    int inside, inside_max;
    int calls;
    uint64_t thread; // of the last call
    char order[64];  // first letters of the names, as they came
} names;

// "gate..." waits until the gate is opened; "no..." does not exist; the others have two addresses.
static ptrdiff_t resolver(void *user, const char *host, uint16_t port, netio_addr *out, size_t cap)
{
    static const unsigned char ip4[4] = {192, 0, 2, 1};
    static const unsigned char ip6[16] = {0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    (void)user;
    locked();
    if (strlen(names.order) + 1 < sizeof names.order) strncat(names.order, host, 1);
    names.calls++;
    names.thread = this_thread();
    if (++names.inside > names.inside_max) names.inside_max = names.inside;
    if (strncmp(host, "gate", 4) == 0) {
        names.waiting++;
        tell_change();
        while (!names.gate_open) wait_change();
        names.waiting--;
    }
    names.inside--;
    unlocked();
    if (strncmp(host, "no", 2) == 0) return NETIO_EAI_NONAME;
    if (cap < 2) return NETIO_ENOSPC;
    netio_addr_from_ip(&out[0], ip6, 16, port);
    netio_addr_from_ip(&out[1], ip4, 4, port);
    return 2;
}

static const netio_resolve_opts ours = {0, resolver, NULL};

static void names_reset(void)
{
    locked();
    memset(&names, 0, sizeof names);
    unlocked();
}

static void open_gate(void)
{
    locked();
    names.gate_open = true;
    tell_change();
    unlocked();
}

static int waiting(void)
{
    locked();
    int n = names.waiting;
    unlocked();
    return n;
}

static void wait_at_gate(int n)
{
    locked();
    while (names.waiting < n) wait_change();
    unlocked();
}

static int calls(void)
{
    locked();
    int n = names.calls;
    unlocked();
    return n;
}

//================================================================================================
// The loop, and what a lookup told
//================================================================================================

static netio_loop *loop;
static long blocks; // before the loop was made

static void open_loop(size_t lookups_max, size_t resolver_threads)
{
    netio_loop_opts opts;
    blocks = test_blocks();
    memset(&opts, 0, sizeof opts);
    opts.backend = test_backend();
    opts.lookups_max = lookups_max;
    opts.resolver_threads = resolver_threads;
    CHECK_OK(netio_loop_create(&loop, &opts));
}

// Threads that outlived their loop give no sign when they have ended: look until what they held is
// free.
static void wait_freed(void)
{
    uint64_t limit = test_ms() + LONG_MS;
    while (test_blocks() != blocks) {
        CHECK(test_ms() < limit);
        test_sleep_ms(1);
    }
}

// Threads that hang at the gate keep their memory until it is opened.
static void close_loop(void)
{
    CHECK_OK(netio_loop_destroy(loop));
    locked();
    bool stuck = names.waiting > 0 && !names.gate_open;
    unlocked();
    if (!stuck) wait_freed();
}

typedef struct answer {
    netio_lookup q;
    int done, err;
    char text[8 * NETIO_ADDR_TEXT]; // the addresses, with blanks between
    uint64_t thread;
    uint64_t at_us;
    netio_lookup *cancels; // another, which it cancels
} answer;

static int asking; // inside netio_lookup_start

static void done(void *user, int err, const netio_addr *addrs, size_t count)
{
    answer *a = (answer *)user;
    CHECK_EQ(0, asking);
    CHECK_EQ(err == 0, count > 0);
    a->done++;
    a->err = err;
    a->thread = this_thread();
    a->at_us = netio_now_us();
    a->text[0] = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = strlen(a->text);
        if (i) a->text[at++] = ' ';
        CHECK(netio_addr_format(&addrs[i], a->text + at, sizeof a->text - at) > 0);
    }
    if (a->cancels) netio_lookup_cancel(*a->cancels);
}

static int try_ask(answer *a, const char *host_port, int timeout_ms)
{
    memset(a, 0, sizeof *a);
    asking++;
    int err = netio_lookup_start(&a->q, loop, host_port, &ours, timeout_ms, done, a);
    asking--;
    CHECK_EQ(0, a->done);
    return err;
}

static void ask(answer *a, const char *host_port, int timeout_ms)
{
    CHECK_OK(try_ask(a, host_port, timeout_ms));
}

static void until(const answer *a)
{
    uint64_t limit = test_ms() + LONG_MS;
    while (!a->done) {
        CHECK(netio_loop_run_once(loop, 1000) >= 0);
        CHECK(test_ms() < limit);
    }
    CHECK_EQ(1, a->done);
}

#define CHECK_ANSWER(a, want)                                                                      \
    do {                                                                                           \
        until(a);                                                                                  \
        CHECK_OK((a)->err);                                                                        \
        CHECK_STR(want, (a)->text);                                                                \
    } while (0)

//================================================================================================
// Answers
//================================================================================================

TEST(lookup, an_answer_comes_from_the_loop)
{
    answer a;
    need_threads();
    names_reset();
    open_loop(0, 0);
    ask(&a, "plain.test:80", LONG_MS);
    CHECK_OK(netio_loop_run(loop)); // ends with the lookup
    CHECK_ANSWER(&a, "[2001:db8::1]:80 192.0.2.1:80");
    CHECK_EQ(this_thread(), a.thread);
    CHECK(names.thread != a.thread);
    netio_lookup_cancel(a.q); // stale: nothing
    ask(&a, "plain.test:81", -1);
    CHECK_ANSWER(&a, "[2001:db8::1]:81 192.0.2.1:81");
    CHECK_EQ(2, calls());
    CHECK_OK(netio_lookup_start(NULL, loop, "plain.test:82", &ours, -1, done, &a));
    a.done = 0;
    CHECK_ANSWER(&a, "[2001:db8::1]:82 192.0.2.1:82");
    close_loop();
}

TEST(lookup, options_and_errors_are_those_of_resolve)
{
    netio_resolve_opts only4 = ours;
    answer a;
    need_threads();
    names_reset();
    open_loop(0, 0);
    ask(&a, "no.test:80", LONG_MS);
    until(&a);
    CHECK_ERR(NETIO_EAI_NONAME, a.err);
    only4.family = NETIO_IPV4;
    memset(&a, 0, sizeof a);
    CHECK_OK(netio_lookup_start(&a.q, loop, "plain.test:80", &only4, LONG_MS, done, &a));
    CHECK_ANSWER(&a, "192.0.2.1:80");
    close_loop();
}

TEST(lookup, the_systems_resolver_is_asked_without_another)
{
    answer a;
    need_threads();
    open_loop(0, 0);
    memset(&a, 0, sizeof a);
    CHECK_OK(netio_lookup_start(&a.q, loop, "localhost:80", NULL, LONG_MS, done, &a));
    until(&a);
    CHECK_OK(a.err);
    CHECK(strstr(a.text, "127.0.0.1:80") || strstr(a.text, "[::1]:80"));
    close_loop();
}

TEST(lookup, text_that_is_no_name_is_refused_at_once)
{
    static const struct {
        const char *text;
        int err;
    } rows[] = {{"", NETIO_EINVAL},
                {"plain.test", NETIO_EINVAL},
                {"plain.test:", NETIO_EINVAL},
                {"plain.test:65536", NETIO_EINVAL},
                {"1.2.3:80", NETIO_EINVAL},
                {"[::1", NETIO_EINVAL},
                {"bad name:80", NETIO_EINVAL},
                {"plain.test:nosuchservice", NETIO_ENOENT}};
    answer a;
    names_reset();
    open_loop(0, 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int err = try_ask(&a, rows[i].text, LONG_MS);
        if (err != rows[i].err) printf("    \"%s\"\n", rows[i].text);
        CHECK_ERR(rows[i].err, err);
        CHECK(a.q.ptr == NULL);
    }
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(0, a.done);
    CHECK_EQ(0, calls());
    close_loop();
}

TEST(lookup, literals_take_a_turn_and_no_thread)
{
    static const char *const rows[][2] = {{"127.0.0.1:80", "127.0.0.1:80"},
                                          {"[::1]:443", "[::1]:443"},
                                          {"192.0.2.7:http", "192.0.2.7:80"},
                                          {":8080", "[::]:8080"}};
    answer a;
    names_reset();
    open_loop(0, 0);
    int before = threads();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ask(&a, rows[i][0], i % 2 ? LONG_MS : -1);
        CHECK_EQ(0, netio_loop_next_timeout(loop)); // for a program that waits by itself
        CHECK_EQ(1, netio_loop_run_once(loop, 0));
        CHECK_ANSWER(&a, rows[i][1]);
    }
    ask(&a, "127.0.0.1:80", -1);
    netio_lookup_cancel(a.q);
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(0, a.done);
    CHECK_EQ(0, calls());
    CHECK_BETWEEN(0, before, threads());
    close_loop();
}

TEST(lookup, without_threads_a_name_is_not_supported)
{
    answer a;
    if (HAS_THREADS) SKIP("built with threads");
    open_loop(0, 0);
    CHECK_ERR(NETIO_ENOTSUP, try_ask(&a, "plain.test:80", LONG_MS));
    CHECK_ERR(NETIO_ENOTSUP, try_ask(&a, "plain.test:80", -1));
    CHECK(a.q.ptr == NULL);
    close_loop();
}

static void ask_again(void *user, int err, const netio_addr *addrs, size_t count)
{
    answer *a = (answer *)user;
    (void)addrs;
    CHECK_OK(err);
    CHECK(count == 2);
    if (++a->done < 5)
        CHECK_OK(netio_lookup_start(&a->q, loop, "plain.test:80", &ours, -1, ask_again, a));
}

TEST(lookup, a_callback_may_ask_again)
{
    answer a;
    need_threads();
    names_reset();
    memset(&a, 0, sizeof a);
    open_loop(0, 0);
    CHECK_OK(netio_lookup_start(&a.q, loop, "plain.test:80", &ours, -1, ask_again, &a));
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(5, a.done);
    CHECK_EQ(5, calls());
    close_loop();
}

//================================================================================================
// Limits
//================================================================================================

static void tick(void *user) { ++*(int *)user; }

TEST(lookup, a_resolver_that_hangs_ends_on_time)
{
    answer a;
    int ticks = 0;
    need_threads();
    names_reset();
    open_loop(0, 0);
    CHECK_OK(netio_timer_every(NULL, loop, 5, tick, &ticks));
    uint64_t start = netio_now_us();
    ask(&a, "gate.test:80", 100);
    until(&a);
    CHECK_ERR(NETIO_ETIMEDOUT, a.err);
    CHECK_BETWEEN(100000, 5000000, a.at_us - start);
    CHECK_BETWEEN(5, (a.at_us - start) / 5000, ticks); // the loop never stood still
    CHECK_EQ(1, waiting());
    ask(&a, "plain.test:80", LONG_MS); // there are three other threads
    CHECK_ANSWER(&a, "[2001:db8::1]:80 192.0.2.1:80");
    a.done = 0;
    open_gate();
    CHECK(netio_loop_run_once(loop, 20) >= 0);
    CHECK_EQ(0, a.done); // the late answer is nobody's
    close_loop();
}

TEST(lookup, four_stuck_threads_delay_nobodys_deadline)
{
    answer stuck[4], late[3], waits;
    need_threads();
    names_reset();
    open_loop(0, 0);
    for (int i = 0; i < 4; i++) ask(&stuck[i], "gate.test:80", -1);
    wait_at_gate(4);
    uint64_t start = netio_now_us();
    for (int i = 0; i < 3; i++) ask(&late[i], "plain.test:80", 40 + 20 * i);
    ask(&waits, "queued.test:80", LONG_MS);
    for (int i = 0; i < 3; i++) {
        until(&late[i]);
        CHECK_ERR(NETIO_ETIMEDOUT, late[i].err);
        CHECK_BETWEEN((40 + 20 * i) * 1000, 5000000, late[i].at_us - start);
    }
    CHECK_EQ(0, waits.done);
    CHECK_EQ(4, calls()); // those that ran out in the queue are never asked
    open_gate();
    CHECK_ANSWER(&waits, "[2001:db8::1]:80 192.0.2.1:80");
    for (int i = 0; i < 4; i++) CHECK_ANSWER(&stuck[i], "[2001:db8::1]:80 192.0.2.1:80");
    CHECK_EQ(5, calls());
    CHECK_EQ(4, names.inside_max);
    CHECK_OK(netio_loop_run(loop));
    close_loop();
}

TEST(lookup, no_more_threads_than_allowed)
{
    enum { N = 20 };
    answer a[N];
    char text[64];
    need_threads();
    names_reset();
    open_loop(0, 2);
    int before = threads();
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text, "gate%d.test:%d", i, i + 1);
        ask(&a[i], text, LONG_MS);
    }
    wait_at_gate(2);
    CHECK(netio_loop_run_once(loop, 20) >= 0);
    CHECK_EQ(2, waiting());
    if (before) CHECK_BETWEEN(1, before + 2, threads());
    open_gate();
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text, "[2001:db8::1]:%d 192.0.2.1:%d", i + 1, i + 1);
        CHECK_ANSWER(&a[i], text);
    }
    CHECK_EQ(N, calls());
    CHECK_BETWEEN(1, 2, names.inside_max);
    close_loop();
}

TEST(lookup, one_thread_serves_in_order)
{
    answer a[6];
    need_threads();
    names_reset();
    open_loop(0, 1);
    ask(&a[0], "gate.test:1", LONG_MS);
    wait_at_gate(1);
    ask(&a[1], "b.test:1", LONG_MS);
    ask(&a[2], "c.test:1", LONG_MS);
    ask(&a[3], "d.test:1", LONG_MS);
    ask(&a[4], "e.test:1", LONG_MS);
    netio_lookup_cancel(a[2].q); // from the middle
    netio_lookup_cancel(a[4].q); // the last: the next one goes behind d
    ask(&a[5], "f.test:1", LONG_MS);
    open_gate();
    CHECK_OK(netio_loop_run(loop));
    CHECK_STR("gbdf", names.order);
    CHECK_EQ(1, a[0].done + a[2].done + a[4].done);
    CHECK_EQ(3, a[1].done + a[3].done + a[5].done);
    close_loop();
}

TEST(lookup, there_is_a_limit_of_lookups)
{
    answer a[3], more;
    need_threads();
    names_reset();
    open_loop(3, 1);
    for (int i = 0; i < 3; i++) ask(&a[i], "gate.test:80", LONG_MS);
    CHECK_ERR(NETIO_EBUSY, try_ask(&more, "plain.test:80", LONG_MS));
    CHECK(more.q.ptr == NULL);
    netio_lookup_cancel(a[2].q); // one that waits makes room at once
    ask(&more, "plain.test:80", LONG_MS);
    open_gate();
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(1, a[0].done);
    CHECK_EQ(1, a[1].done);
    CHECK_EQ(0, a[2].done);
    CHECK_EQ(1, more.done);
    for (int i = 0; i < 3; i++) ask(&a[i], "plain.test:80", LONG_MS);
    CHECK_ERR(NETIO_EBUSY, try_ask(&more, "plain.test:80", LONG_MS));
    CHECK_OK(netio_loop_run(loop));
    close_loop();
}

TEST(lookup, without_memory_or_a_thread_nothing_was_asked)
{
    answer a;
    need_threads();
    names_reset();
    open_loop(0, 0);
    for (long n = 1;; n++) {
        test_alloc_fail_at(n);
        int err = try_ask(&a, "plain.test:80", LONG_MS);
        if (err == 0) until(&a);
        test_alloc_fail_at(0);
        if (err == 0 && a.err == 0) break;
        CHECK_ERR(NETIO_ENOMEM, err < 0 ? err : a.err);
        CHECK(n < 50);
    }
    CHECK_OK(netio_loop_run(loop));
    close_loop();
}

//================================================================================================
// Cancel, and the end of the loop
//================================================================================================

TEST(lookup, a_cancelled_one_says_nothing)
{
    answer a;
    need_threads();
    names_reset();
    open_loop(0, 0);
    ask(&a, "gate.test:80", 50);
    wait_at_gate(1);
    netio_lookup_cancel(a.q);
    netio_lookup_cancel(a.q);
    CHECK_OK(netio_loop_run(loop)); // nothing is left, though the resolver still hangs
    CHECK_EQ(0, a.done);
    open_gate();
    CHECK(netio_loop_run_once(loop, 30) >= 0);
    CHECK_EQ(0, a.done);
    ask(&a, "plain.test:80", -1); // answered, but not yet told
    test_sleep_ms(20);
    netio_lookup_cancel(a.q);
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(0, a.done);
    close_loop();
}

TEST(lookup, a_callback_cancels_another_of_the_same_batch)
{
    static const netio_lookup nothing;
    answer a, b;
    need_threads();
    netio_lookup_cancel(nothing);
    for (int i = 0; i < 2; i++) {
        const char *text = i ? "127.0.0.1:80" : "plain.test:80";
        names_reset();
        open_loop(0, 0);
        ask(&a, text, LONG_MS);
        ask(&b, text, LONG_MS);
        a.cancels = &b.q;
        b.cancels = &a.q;
        if (!i) test_sleep_ms(20); // most likely both are answered by then
        CHECK_OK(netio_loop_run(loop));
        CHECK_EQ(1, a.done + b.done);
        close_loop();
    }
}

TEST(lookup, destroy_does_not_wait_for_a_resolver_that_hangs)
{
    enum { N = 8 };
    answer a[N];
    need_threads();
    for (int round = 0; round < 3; round++) {
        names_reset();
        open_loop(0, 0);
        for (int i = 0; i < N; i++) ask(&a[i], "gate.test:80", i % 2 ? -1 : LONG_MS);
        wait_at_gate(4);
        uint64_t start = test_ms();
        close_loop();
        CHECK_BETWEEN(0, 5000, test_ms() - start);
        for (int i = 0; i < N; i++) {
            CHECK(a[i].done <= 1);
            if (a[i].done) CHECK_ERR(NETIO_ECANCELED, a[i].err);
            a[i].done = 0;
        }
        CHECK_EQ(4, waiting());
        open_gate();
        wait_freed(); // the late answers, and what the threads shared
        for (int i = 0; i < N; i++) CHECK_EQ(0, a[i].done);
        CHECK_EQ(4, calls()); // nobody asks for those that still waited
    }
}

TEST(lookup, destroy_with_answers_that_were_not_told)
{
    answer a[4];
    need_threads();
    names_reset();
    open_loop(0, 0);
    for (int i = 0; i < 4; i++) ask(&a[i], i % 2 ? "plain.test:80" : "127.0.0.1:80", LONG_MS);
    test_sleep_ms(20);
    close_loop();
    for (int i = 0; i < 4; i++) {
        CHECK(a[i].done <= 1);
        if (a[i].done) CHECK_ERR(NETIO_ECANCELED, a[i].err);
    }
    wait_freed();
}

//================================================================================================
// Dialing a name
//================================================================================================

static struct {
    int opened, closed, err, stage;
    uint64_t at_us;
} dialed;

static void on_open(netio_conn c)
{
    dialed.opened++;
    CHECK_OK(netio_conn_close(c));
}

static void on_close(netio_conn c, int err)
{
    netio_error e;
    dialed.closed++;
    dialed.err = err;
    dialed.stage = netio_conn_error(c, &e) == 0 ? e.stage : 0;
    dialed.at_us = netio_now_us();
}

static const netio_handler dialer = {.on_open = on_open, .on_close = on_close};

static void dial(netio_conn *out, const char *address, int timeout_ms)
{
    netio_dial_opts opts;
    memset(&dialed, 0, sizeof dialed);
    memset(&opts, 0, sizeof opts);
    opts.timeout_ms = timeout_ms;
    opts.socket.resolve = ours;
    CHECK_OK(netio_conn_dial(out, loop, address, &dialer, &opts));
    CHECK_EQ(0, dialed.opened + dialed.closed);
}

TEST(lookup, a_dial_ends_at_its_deadline_while_the_resolver_hangs)
{
    netio_conn c;
    int ticks = 0;
    need_threads();
    names_reset();
    open_loop(0, 0);
    uint64_t start = netio_now_us();
    dial(&c, "gate.test:80", 100);
    netio_timer t;
    CHECK_OK(netio_timer_every(&t, loop, 5, tick, &ticks));
    while (!dialed.closed) CHECK(netio_loop_run_once(loop, LONG_MS) >= 0);
    CHECK_ERR(NETIO_ETIMEDOUT, dialed.err);
    CHECK_EQ(NETIO_STAGE_RESOLVE, dialed.stage);
    CHECK_BETWEEN(100000, 5000000, dialed.at_us - start);
    CHECK(ticks >= 5);
    netio_timer_stop(t);
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(1, dialed.closed);
    open_gate();
    close_loop();
}

TEST(lookup, a_dial_is_ended_in_the_middle_of_its_lookup)
{
    netio_conn c;
    need_threads();
    for (int how = 0; how < 3; how++) {
        names_reset();
        open_loop(0, 0);
        dial(&c, "gate.test:80", LONG_MS);
        wait_at_gate(1);
        if (how == 0) CHECK_OK(netio_conn_abort(c));
        if (how == 1) CHECK_OK(netio_conn_close(c));
        if (how < 2) CHECK_OK(netio_loop_run(loop));
        close_loop();
        CHECK_EQ(0, dialed.opened);
        CHECK_EQ(1, dialed.closed);
        if (how == 2) CHECK_ERR(NETIO_ECANCELED, dialed.err);
        CHECK(dialed.err < 0);
        open_gate();
        wait_freed();
    }
}

TEST(lookup, a_name_that_is_none_ends_the_dial)
{
    netio_conn c;
    need_threads();
    names_reset();
    open_loop(0, 0);
    dial(&c, "no.test:80", LONG_MS);
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(0, dialed.opened);
    CHECK_EQ(1, dialed.closed);
    CHECK_ERR(NETIO_EAI_NONAME, dialed.err);
    CHECK_EQ(NETIO_STAGE_RESOLVE, dialed.stage);
    close_loop();
}

//================================================================================================
// After fork
//================================================================================================

#ifndef _WIN32
TEST(lookup, a_fork_leaves_it_to_the_parent)
{
    answer a;
    int status = 0;
    need_threads();
    names_reset();
    open_loop(0, 0);
    ask(&a, "gate.test:80", LONG_MS);
    wait_at_gate(1);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) { // its thread is not here
        netio_loop_destroy_after_fork(loop);
        _exit(a.done ? 2 : 0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    CHECK_EQ(0, WEXITSTATUS(status));
    open_gate();
    CHECK_ANSWER(&a, "[2001:db8::1]:80 192.0.2.1:80");
    close_loop();
}
#else
TEST(lookup, a_fork_leaves_it_to_the_parent) { SKIP("there is no fork"); }
#endif

TEST_MAIN("lookup", T(lookup, an_answer_comes_from_the_loop),
          T(lookup, options_and_errors_are_those_of_resolve),
          T(lookup, the_systems_resolver_is_asked_without_another),
          T(lookup, text_that_is_no_name_is_refused_at_once),
          T(lookup, literals_take_a_turn_and_no_thread),
          T(lookup, without_threads_a_name_is_not_supported), T(lookup, a_callback_may_ask_again),
          T(lookup, a_resolver_that_hangs_ends_on_time),
          T(lookup, four_stuck_threads_delay_nobodys_deadline),
          T(lookup, no_more_threads_than_allowed), T(lookup, one_thread_serves_in_order),
          T(lookup, there_is_a_limit_of_lookups),
          T(lookup, without_memory_or_a_thread_nothing_was_asked),
          T(lookup, a_cancelled_one_says_nothing),
          T(lookup, a_callback_cancels_another_of_the_same_batch),
          T(lookup, destroy_does_not_wait_for_a_resolver_that_hangs),
          T(lookup, destroy_with_answers_that_were_not_told),
          T(lookup, a_dial_ends_at_its_deadline_while_the_resolver_hangs),
          T(lookup, a_dial_is_ended_in_the_middle_of_its_lookup),
          T(lookup, a_name_that_is_none_ends_the_dial), T(lookup, a_fork_leaves_it_to_the_parent))
