// BACKENDS: all
//
// A loop by itself: when it runs and when it ends, posts from other threads, being driven from
// outside, and what is left of it after a fork. Connections appear only as things that it owns.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifndef _WIN32
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

enum { LONG_MS = 10000, FAR_MS = 3600 * 1000 };

static netio_loop *loop;

static void open_loop(void)
{
    netio_loop_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.backend = test_backend();
    CHECK_OK(netio_loop_create(&loop, &opts));
}

static void close_loop(void)
{
    CHECK_OK(netio_loop_destroy(loop));
    loop = NULL;
}

static char ran[64]; // what ran, as letters

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

static void *name(const char *text) { return (void *)(uintptr_t)text; }

static void post(netio_task task, const char *what)
{
    CHECK_OK(netio_loop_post(loop, task, NULL, name(what), 0));
}

static void stop(void *user)
{
    say((const char *)user);
    netio_loop_stop(loop);
}

// A connection of the loop and its peer, a plain socket.
static netio_conn adopt_pair(netio_socket *peer, const netio_handler *h)
{
    netio_socket s;
    netio_conn c;
    test_tcp_pair(peer, &s);
    CHECK_OK(netio_conn_adopt(&c, loop, s, h, NULL));
    return c;
}

//================================================================================================
// Making one
//================================================================================================

TEST(loop, create_says_what_is_missing)
{
    netio_loop *none = NULL;
    netio_loop_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.backend = NETIO_BACKEND_IOURING;
    CHECK_ERR(NETIO_ENOTSUP, netio_loop_create(&none, &opts));
    opts.backend = 99;
    CHECK(netio_loop_create(&none, &opts) < 0);
    CHECK(none == NULL);
    CHECK_OK(netio_loop_create(&none, NULL));
    CHECK_OK(netio_loop_destroy(none));
}

TEST(loop, create_and_post_survive_every_failing_allocation)
{
    long n = 0;
    for (int err = NETIO_ENOMEM; err != 0; n++) {
        netio_loop_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.backend = test_backend();
        loop = NULL;
        test_alloc_fail_at(n + 1);
        err = netio_loop_create(&loop, &opts);
        test_alloc_fail_at(0);
        if (err == 0) break;
        CHECK_ERR(NETIO_ENOMEM, err);
        CHECK(loop == NULL);
        CHECK(n < 100);
    }
    CHECK(n > 0);
    test_alloc_fail_at(1);
    CHECK_ERR(NETIO_ENOMEM, netio_loop_post(loop, note, note, name("x"), 2));
    test_alloc_fail_at(0);
    ran[0] = 0;
    CHECK_EQ(0, netio_loop_run_once(loop, 0));
    close_loop();
    CHECK_RAN(""); // not even the drop: the post was refused
}

#ifndef _WIN32
TEST(loop, create_without_descriptors_is_emfile)
{
    enum { LIMIT = 64 };
    struct rlimit old, low;
    netio_loop *none = NULL;
    netio_loop_opts opts;
    int filler[LIMIT], fillers = 0;
    memset(&opts, 0, sizeof opts);
    opts.backend = test_backend();
    CHECK_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
    low = old;
    low.rlim_cur = LIMIT;
    CHECK_EQ(0, setrlimit(RLIMIT_NOFILE, &low));
    while (fillers < LIMIT && (filler[fillers] = dup(1)) >= 0) fillers++;
    int err = netio_loop_create(&none, &opts);
    while (fillers > 0) close(filler[--fillers]);
    CHECK_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
    CHECK_ERR(NETIO_EMFILE, err);
    CHECK(none == NULL);
}
#else
TEST(loop, create_without_descriptors_is_emfile) { SKIP("no limit of descriptors on Windows"); }
#endif

//================================================================================================
// When run ends
//================================================================================================

TEST(loop, run_ends_at_once_when_nothing_is_left)
{
    open_loop();
    uint64_t start = test_ms();
    CHECK_OK(netio_loop_run(loop));
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(0, netio_loop_run_once(loop, 0));
    CHECK_EQ(-1, netio_loop_next_timeout(loop));
    CHECK_BETWEEN(0, 2000, test_ms() - start);
    close_loop();
}

TEST(loop, run_goes_on_while_a_timer_runs)
{
    ran[0] = 0;
    open_loop();
    uint64_t start = netio_now_us();
    CHECK_OK(netio_timer_once(NULL, loop, 30, note, name("b")));
    CHECK_OK(netio_timer_once(NULL, loop, 10, note, name("a")));
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("ab");
    CHECK_BETWEEN(30000, 3000000, netio_now_us() - start);
    close_loop();
}

TEST(loop, run_goes_on_while_posts_come)
{
    ran[0] = 0;
    open_loop();
    post(note, "a");
    post(note, "b");
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("ab");
    close_loop();
}

static void conn_gone(netio_conn c, int err)
{
    (void)c;
    say(err == 0 ? "c" : err == NETIO_ECANCELED ? "x" : "?");
}

static const netio_handler only_close = {.on_close = conn_gone};

static void close_socket(void *user) { CHECK_OK(netio_close((netio_socket *)user)); }

TEST(loop, run_goes_on_while_a_connection_is_open)
{
    netio_socket peer;
    ran[0] = 0;
    open_loop();
    adopt_pair(&peer, &only_close);
    CHECK_OK(netio_timer_once(NULL, loop, 10, close_socket, &peer));
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("c");
    close_loop();
}

static netio_listener listener;

static void close_listener(void *user)
{
    (void)user;
    netio_listener_close(listener);
}

TEST(loop, run_goes_on_while_a_listener_is_open)
{
    open_loop();
    CHECK_OK(netio_listener_open(&listener, loop, "127.0.0.1:0", &only_close, NULL));
    uint64_t start = netio_now_us();
    CHECK_OK(netio_timer_once(NULL, loop, 30, close_listener, NULL));
    CHECK_OK(netio_loop_run(loop));
    CHECK_BETWEEN(30000, 3000000, netio_now_us() - start);
    close_loop();
}

static netio_udp endpoint;

static void udp_gone(netio_udp u, int err)
{
    (void)u;
    say(err == 0 ? "u" : err == NETIO_ECANCELED ? "x" : "?");
}

static const netio_udp_handler udp_only_close = {.on_close = udp_gone};

static void close_endpoint(void *user)
{
    (void)user;
    netio_udp_close(endpoint);
}

TEST(loop, run_goes_on_while_an_endpoint_is_open)
{
    ran[0] = 0;
    open_loop();
    CHECK_OK(netio_udp_open(&endpoint, loop, "127.0.0.1:0", &udp_only_close, NULL));
    CHECK_OK(netio_timer_once(NULL, loop, 5, close_endpoint, NULL));
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("u");
    close_loop();
}

//================================================================================================
// Stop
//================================================================================================

static void post_c(void *user)
{
    stop(user);
    post(note, "c");
    CHECK_OK(netio_timer_once(NULL, loop, 0, note, name("d")));
}

TEST(loop, stop_ends_run_after_this_turn)
{
    ran[0] = 0;
    open_loop();
    post(note, "a");
    post(post_c, "b");
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("ab"); // c and d are of a later turn
    post(note, "e");
    post(stop, "f");
    post(stop, "g");
    CHECK_OK(netio_loop_run(loop)); // nothing is lost
    CHECK_EQ(5, strlen(ran));
    CHECK(strspn(ran, "cdefg") == 5);
    ran[0] = 0;
    CHECK_OK(netio_loop_run(loop)); // two stops of one turn are one
    CHECK_RAN("");
    close_loop();
}

static void restart(void *user)
{
    stop(user);
    CHECK_OK(netio_timer_once(NULL, loop, 0, restart, user));
}

TEST(loop, stop_in_a_timer_ends_run_after_its_batch)
{
    ran[0] = 0;
    open_loop();
    CHECK_OK(netio_timer_once(NULL, loop, 0, restart, name("a")));
    CHECK_OK(netio_timer_once(NULL, loop, 0, note, name("b")));
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("ab");
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("a");
    close_loop();
}

static void data_and_stop(netio_conn c, const void *data, size_t len)
{
    (void)c, (void)data;
    CHECK_EQ(1, len);
    say("d");
    netio_loop_stop(loop);
}

static const netio_handler stop_on_data = {.on_data = data_and_stop, .on_close = conn_gone};

TEST(loop, stop_in_a_connection_keeps_the_bytes_of_others)
{
    netio_socket peer[3];
    ran[0] = 0;
    open_loop();
    for (int i = 0; i < 3; i++) {
        adopt_pair(&peer[i], &stop_on_data);
        CHECK_ERR(1, netio_send(peer[i], "x", 1, 1000));
    }
    for (int i = 1; i <= 3 && strlen(ran) < 3; i++) { // each run ends by itself
        CHECK_OK(netio_loop_run(loop));
        CHECK_BETWEEN(i, 3, strlen(ran));
    }
    CHECK_RAN("ddd");
    close_loop();
    CHECK_RAN("xxx");
    for (int i = 0; i < 3; i++) CHECK_OK(netio_close(&peer[i]));
}

TEST(loop, stop_before_run_ends_that_run_at_once)
{
    ran[0] = 0;
    open_loop();
    post(note, "a");
    CHECK_OK(netio_timer_once(NULL, loop, 0, note, name("b")));
    netio_loop_stop(loop);
    netio_loop_stop(loop); // twice is once
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("");
    CHECK_OK(netio_loop_run(loop));
    CHECK_EQ(2, strlen(ran));
    close_loop();
}

static void stop_by_thread(void *arg)
{
    test_sleep_ms(20); // most likely it waits by then; the test holds either way
    netio_loop_stop((netio_loop *)arg);
}

TEST(loop, stop_from_another_thread_ends_the_wait)
{
    test_thread t;
    ran[0] = 0;
    open_loop();
    CHECK_OK(netio_timer_once(NULL, loop, FAR_MS, note, name("a")));
    for (int i = 0; i < 3; i++) {
        uint64_t start = test_ms();
        test_thread_start(&t, stop_by_thread, loop);
        CHECK_OK(netio_loop_run(loop));
        test_thread_join(&t);
        CHECK_BETWEEN(15, LONG_MS, test_ms() - start);
    }
    CHECK_RAN("");
    close_loop();
}

#ifndef _WIN32
static void stop_in_handler(int signum)
{
    (void)signum;
    netio_loop_stop(loop);
}

TEST(loop, stop_from_a_signal_handler_ends_the_wait)
{
    struct sigaction old, act;
    struct itimerval timer;
    open_loop();
    memset(&act, 0, sizeof act);
    memset(&timer, 0, sizeof timer);
    act.sa_handler = stop_in_handler;
    CHECK_EQ(0, sigaction(SIGALRM, &act, &old));
    CHECK_OK(netio_timer_once(NULL, loop, FAR_MS, note, NULL));
    timer.it_value.tv_usec = 20000;
    uint64_t start = test_ms();
    CHECK_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
    CHECK_OK(netio_loop_run(loop));
    CHECK_BETWEEN(15, LONG_MS, test_ms() - start);
    CHECK_EQ(0, sigaction(SIGALRM, &old, NULL));
    close_loop();
}
#else
TEST(loop, stop_from_a_signal_handler_ends_the_wait) { SKIP("Windows has threads for that"); }
#endif

//================================================================================================
// One turn
//================================================================================================

TEST(loop, a_turn_tells_how_many_callbacks_ran)
{
    ran[0] = 0;
    open_loop();
    for (int i = 0; i < 3; i++) post(note, "p");
    for (int i = 0; i < 2; i++) CHECK_OK(netio_timer_once(NULL, loop, 0, note, name("t")));
    CHECK_EQ(5, netio_loop_run_once(loop, 0));
    CHECK_EQ(5, strlen(ran));
    CHECK_EQ(0, netio_loop_run_once(loop, 0));
    close_loop();
}

TEST(loop, a_turn_waits_no_longer_than_it_is_told)
{
    ran[0] = 0;
    open_loop();
    CHECK_OK(netio_timer_once(NULL, loop, FAR_MS, note, name("a")));
    uint64_t start = netio_now_us(), cpu = test_cpu_ms();
    CHECK_EQ(0, netio_loop_run_once(loop, 40));
    CHECK_BETWEEN(40000, 3000000, netio_now_us() - start);
    CHECK_BETWEEN(0, 35, test_cpu_ms() - cpu);
    start = netio_now_us();
    CHECK_OK(netio_timer_once(NULL, loop, 20, note, name("b")));
    while (netio_loop_run_once(loop, LONG_MS) == 0) {} // less if something is due before
    CHECK_RAN("b");
    CHECK_BETWEEN(20000, 3000000, netio_now_us() - start);
    close_loop();
}

// An idle loop with much that could happen costs nothing.
TEST(loop, an_idle_loop_sleeps)
{
    netio_socket peer[8];
    ran[0] = 0;
    open_loop();
    CHECK_OK(netio_listener_open(&listener, loop, "127.0.0.1:0", &only_close, NULL));
    CHECK_OK(netio_udp_open(&endpoint, loop, "127.0.0.1:0", &udp_only_close, NULL));
    for (int i = 0; i < 8; i++) adopt_pair(&peer[i], &only_close);
    while (netio_loop_run_once(loop, 20) > 0) {}
    netio_stats before, after;
    netio_loop_stats(loop, &before);
    uint64_t cpu = test_cpu_ms();
    CHECK_OK(netio_timer_once(NULL, loop, 500, stop, name("s")));
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("s");
    netio_loop_stats(loop, &after);
    if (!test_under("wine") && !test_under("valgrind"))
        CHECK_BETWEEN(0, 100, test_cpu_ms() - cpu); // a loop that spins takes up to 500
    CHECK_BETWEEN(1, 20, after.turns - before.turns);
    CHECK_OK(netio_loop_destroy(loop));
    for (int i = 0; i < 8; i++) CHECK_OK(netio_close(&peer[i]));
}

//================================================================================================
// Misuse from callbacks
//================================================================================================

static int busy_calls, busy_failures;

static void expect_busy(void)
{
    busy_calls++;
    if (netio_loop_run(loop) != NETIO_EBUSY) busy_failures++;
    if (netio_loop_run_once(loop, 0) != NETIO_EBUSY) busy_failures++;
    if (netio_loop_destroy(loop) != NETIO_EBUSY) busy_failures++;
}

static void busy_task(void *user)
{
    (void)user;
    expect_busy();
}

static void busy_open(netio_conn c)
{
    (void)c;
    expect_busy();
}

static void busy_data(netio_conn c, const void *data, size_t len)
{
    (void)data, (void)len;
    expect_busy();
    CHECK_OK(netio_conn_write_owned(c, "y", 1, busy_task, NULL));
}

static void busy_close(netio_conn c, int err)
{
    (void)c, (void)err;
    expect_busy();
}

static void busy_watch(void *user, unsigned events)
{
    (void)events;
    expect_busy();
    netio_watch_stop(*(netio_watch *)user);
}

static void busy_lookup(void *user, int err, const netio_addr *addrs, size_t count)
{
    (void)user, (void)err, (void)addrs, (void)count;
    expect_busy();
}

static void busy_datagrams(netio_udp u, netio_datagram *msgs, size_t count)
{
    (void)msgs, (void)count;
    expect_busy();
    netio_udp_close(u);
}

static void busy_udp_close(netio_udp u, int err)
{
    (void)u, (void)err;
    expect_busy();
}

static const netio_handler busy_handler = {
    .on_open = busy_open, .on_data = busy_data, .on_eof = busy_open, .on_close = busy_close};
static const netio_udp_handler busy_udp = {.on_datagrams = busy_datagrams,
                                           .on_close = busy_udp_close};

TEST(loop, no_callback_may_run_or_destroy_its_loop)
{
    netio_socket peer, watched[2], stranger;
    netio_watch w;
    netio_addr to;
    char buf[4];
    busy_calls = busy_failures = 0;
    open_loop();
    post(busy_task, "");
    CHECK_OK(netio_timer_once(NULL, loop, 0, busy_task, NULL));
    test_tcp_pair(&watched[0], &watched[1]);
    CHECK_OK(netio_watch_start(&w, loop, watched[0], NETIO_EV_WRITE, busy_watch, &w));
    CHECK_OK(netio_lookup_start(NULL, loop, "127.0.0.1:1", NULL, -1, busy_lookup, NULL));
    CHECK_OK(netio_udp_open(&endpoint, loop, "127.0.0.1:0", &busy_udp, NULL));
    CHECK_OK(netio_udp_addr(endpoint, &to));
    CHECK_OK(netio_bind(&stranger, "127.0.0.1:0", NULL));
    CHECK_ERR(1, netio_sendto(stranger, "x", 1, &to, 1000));
    netio_conn c = adopt_pair(&peer, &busy_handler);
    CHECK_ERR(1, netio_send(peer, "x", 1, 1000));
    // task, timer, watch, lookup, datagrams, close of the endpoint, open, data, release
    while (busy_calls < 9) CHECK(netio_loop_run_once(loop, LONG_MS) >= 0);
    CHECK_ERR(1, netio_recv(peer, buf, sizeof buf, LONG_MS));
    CHECK_OK(netio_shutdown(peer, NETIO_SHUT_WRITE));
    while (busy_calls < 10) CHECK(netio_loop_run_once(loop, LONG_MS) >= 0);
    CHECK(netio_conn_alive(c));
    CHECK_OK(netio_loop_post(loop, busy_task, busy_task, NULL, 0));
    close_loop(); // the drop and on_close
    CHECK_EQ(12, busy_calls);
    CHECK_EQ(0, busy_failures);
    CHECK_OK(netio_close(&peer));
    CHECK_OK(netio_close(&stranger));
    CHECK_OK(netio_close(&watched[0]));
    CHECK_OK(netio_close(&watched[1]));
}

typedef struct verdict {
    int err;
} verdict;

static void destroy_by_thread(void *arg)
{
    verdict *v = (verdict *)arg;
    v->err = netio_loop_destroy(loop);
    netio_loop_stop(loop);
}

static test_thread thread;

static void start_destroyer(void *user) { test_thread_start(&thread, destroy_by_thread, user); }

TEST(loop, destroy_while_it_runs_is_busy)
{
    verdict v = {0};
    open_loop();
    CHECK_OK(netio_timer_once(NULL, loop, FAR_MS, note, NULL));
    CHECK_OK(netio_loop_post(loop, start_destroyer, NULL, &v, 0));
    CHECK_OK(netio_loop_run(loop));
    test_thread_join(&thread);
    CHECK_ERR(NETIO_EBUSY, v.err);
    close_loop();
}

//================================================================================================
// Destroy
//================================================================================================

static int refused, released;

static void make_nothing_new(netio_conn c, int err)
{
    netio_conn made;
    (void)c;
    CHECK_ERR(NETIO_ECANCELED, err);
    say("c");
    refused = 0;
    refused += netio_timer_once(NULL, loop, 0, note, name("?")) == NETIO_ECANCELED;
    refused += netio_timer_every(NULL, loop, 1, note, name("?")) == NETIO_ECANCELED;
    refused += netio_listener_open(NULL, loop, "127.0.0.1:0", &only_close, NULL) == NETIO_ECANCELED;
    refused += netio_udp_open(NULL, loop, NULL, &udp_only_close, NULL) == NETIO_ECANCELED;
    refused += netio_conn_dial(&made, loop, "127.0.0.1:1", &only_close, NULL) == NETIO_ECANCELED;
    refused += netio_conn_write(c, "x", 1) < 0;
    // A post is either refused or dropped, but never lost.
    refused += netio_loop_post(loop, note, note, name("d"), 0) < 0 ? (say("d"), 1) : 1;
}

static const netio_handler stubborn = {.on_close = make_nothing_new};

static void release(void *user)
{
    (void)user;
    released++;
}

TEST(loop, destroy_ends_all_that_it_owns)
{
    enum { LEN = 4 << 20 };
    static const netio_conn nobody;
    netio_socket peer, watched[2];
    netio_lookup lookup;
    char *big = (char *)malloc(LEN);
    CHECK(big != NULL);
    ran[0] = 0;
    refused = released = 0;
    open_loop();
    netio_conn c = adopt_pair(&peer, &stubborn);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    memset(big, 7, LEN);
    CHECK_OK(netio_conn_write_owned(c, big, LEN, release, NULL)); // too much for the socket
    CHECK_OK(netio_timer_once(NULL, loop, 0, note, name("?")));
    CHECK_OK(netio_timer_every(NULL, loop, 1, note, name("?")));
    CHECK_OK(netio_listener_open(NULL, loop, "127.0.0.1:0", &only_close, NULL));
    CHECK_OK(netio_udp_open(NULL, loop, "127.0.0.1:0", &udp_only_close, NULL));
    test_tcp_pair(&watched[0], &watched[1]);
    CHECK_OK(netio_watch_start(NULL, loop, watched[0], NETIO_EV_WRITE, busy_watch, NULL));
    CHECK_OK(netio_lookup_start(&lookup, loop, "127.0.0.1:1", NULL, -1, busy_lookup, NULL));
    netio_lookup_cancel(lookup);
    CHECK_OK(netio_loop_post(loop, note, note, name("p"), 0));
    CHECK_OK(netio_loop_post(loop, note, NULL, name("?"), 0));
    CHECK_OK(netio_loop_post(loop, note, note, name("q"), 2));
    close_loop();
    CHECK_EQ(7, refused);
    CHECK_EQ(1, released);
    CHECK(strchr(ran, '?') == NULL);
    const char *p = strchr(ran, 'p'), *q = strchr(ran, 'q');
    CHECK(p && q && p < q); // drops, in order
    CHECK(strchr(ran, 'c') && strchr(ran, 'x') && strchr(ran, 'd'));
    CHECK_EQ(5, strlen(ran));
    CHECK_EQ(0, netio_conn_same(c, nobody));
    CHECK_OK(netio_set_option(watched[0], NETIO_OPT_NODELAY, 1)); // stays the user's
    CHECK_OK(netio_close(&watched[0]));
    CHECK_OK(netio_close(&watched[1]));
    CHECK_OK(netio_close(&peer));
    free(big);
}

TEST(loop, destroy_tells_each_connection_once)
{
    netio_socket peer[20];
    netio_conn c;
    ran[0] = 0;
    open_loop();
    for (int i = 0; i < 20; i++) {
        c = adopt_pair(&peer[i], &only_close);
        if (i % 4 == 1) CHECK_OK(netio_conn_close(c));
        if (i % 4 == 2) CHECK_OK(netio_conn_shutdown(c));
        if (i % 4 == 3) CHECK(netio_loop_run_once(loop, 0) >= 0);
    }
    CHECK_OK(netio_conn_dial(&c, loop, "127.0.0.1:1", &only_close, NULL));
    close_loop();
    CHECK_RAN("xxxxxxxxxxxxxxxxxxxxx");
    for (int i = 0; i < 20; i++) CHECK_OK(netio_close(&peer[i]));
}

//================================================================================================
// Posts
//================================================================================================

TEST(loop, posts_run_in_order)
{
    ran[0] = 0;
    open_loop();
    post(note, "a");
    post(note, "b");
    post(note, "c");
    CHECK_EQ(3, netio_loop_run_once(loop, LONG_MS));
    CHECK_RAN("abc");
    close_loop();
}

static void post_again(void *user)
{
    say((const char *)user);
    if (strlen(ran) < 4) post(post_again, (const char *)user);
}

TEST(loop, a_task_posted_from_a_task_runs_in_the_next_turn)
{
    ran[0] = 0;
    open_loop();
    post(post_again, "a");
    for (size_t i = 1; i <= 4; i++) {
        CHECK_EQ(1, netio_loop_run_once(loop, LONG_MS));
        CHECK_EQ(i, strlen(ran));
    }
    CHECK_EQ(0, netio_loop_run_once(loop, 0));
    CHECK_RAN("aaaa");
    close_loop();
}

typedef struct payload {
    uint64_t number; // wants the alignment of a pointer
    double real;
    void *self;
    char rest[100];
} payload;

static payload seen;

static void see(void *user)
{
    const payload *p = (const payload *)user;
    CHECK_EQ(0, (uintptr_t)p % sizeof(double));
    CHECK(p->self != p); // a copy
    seen = *p;
    say("s");
}

TEST(loop, a_payload_is_copied_at_once)
{
    payload p;
    memset(&p, 1, sizeof p);
    p.number = 42;
    p.real = 0.5;
    p.self = &p;
    ran[0] = 0;
    open_loop();
    CHECK_OK(netio_loop_post(loop, see, NULL, &p, sizeof p));
    memset(&p, 0, sizeof p);
    CHECK_EQ(1, netio_loop_run_once(loop, LONG_MS));
    CHECK_RAN("s");
    CHECK_EQ(42, seen.number);
    CHECK(seen.real > 0.4 && seen.real < 0.6);
    CHECK_EQ(1, seen.rest[99]);
    close_loop();
}

enum { LARGE = 1 << 20 };

static void see_large(void *user)
{
    static unsigned char want[LARGE];
    test_fill(want, LARGE, 5);
    CHECK_MEM(want, user, LARGE);
    say("l");
}

TEST(loop, payloads_of_any_size)
{
    unsigned char *data = (unsigned char *)malloc(LARGE);
    ran[0] = 0;
    open_loop();
    test_fill(data, LARGE, 5);
    CHECK_OK(netio_loop_post(loop, see_large, see_large, data, LARGE));
    CHECK_OK(netio_loop_post(loop, note, NULL, name("a"), 2)); // one letter and its NUL
    memset(data, 0, LARGE);
    CHECK_EQ(2, netio_loop_run_once(loop, LONG_MS));
    CHECK_RAN("la");
    test_fill(data, LARGE, 5);
    CHECK_OK(netio_loop_post(loop, see_large, see_large, data, LARGE));
    free(data);
    close_loop(); // the drop sees the same copy
    CHECK_RAN("l");
}

typedef struct letter {
    int from, seq;
} letter;

enum { SENDERS = 4 };

static struct {
    int each; // posts of each thread
    int next[SENDERS];
    int total, wrong;
} mail;

static void receive(void *user)
{
    const letter *l = (const letter *)user;
    if (mail.next[l->from]++ != l->seq) mail.wrong++;
    if (++mail.total == SENDERS * mail.each) netio_loop_stop(loop);
}

typedef struct sender {
    test_thread thread;
    int number, count, failed;
} sender;

static void send_letters(void *arg)
{
    sender *s = (sender *)arg;
    for (int i = 0; i < s->count; i++) {
        letter l;
        l.from = s->number;
        l.seq = i;
        if (netio_loop_post(loop, receive, NULL, &l, sizeof l) != 0) s->failed++;
    }
}

TEST(loop, hundred_thousand_posts_from_four_threads)
{
    bool slow = test_under("wine") || test_under("valgrind") || test_under("qemu");
    sender s[SENDERS];
    memset(&mail, 0, sizeof mail);
    memset(s, 0, sizeof s);
    mail.each = slow ? 2500 : 25000;
    open_loop();
    CHECK_OK(netio_timer_once(NULL, loop, FAR_MS, note, NULL)); // so that it waits between posts
    for (int i = 0; i < SENDERS; i++) {
        s[i].number = i;
        s[i].count = mail.each;
        test_thread_start(&s[i].thread, send_letters, &s[i]);
    }
    CHECK_OK(netio_loop_run(loop));
    for (int i = 0; i < SENDERS; i++) test_thread_join(&s[i].thread);
    for (int i = 0; i < SENDERS; i++) {
        CHECK_EQ(0, s[i].failed);
        CHECK_EQ(mail.each, mail.next[i]);
    }
    CHECK_EQ(0, mail.wrong);
    close_loop();
}

typedef struct question {
    netio_loop *to;
    int count;
} question;

static void ask_slowly(void *arg)
{
    question *q = (question *)arg;
    for (int i = 0; i < q->count; i++) {
        test_sleep_ms(2);
        netio_loop_post(q->to, note, NULL, name("a"), 0);
    }
    netio_loop_post(q->to, stop, NULL, name("b"), 0);
}

// With the loop asleep each time: none of the wakes may be lost.
TEST(loop, a_post_wakes_a_loop_that_sleeps)
{
    question q;
    ran[0] = 0;
    open_loop();
    q.to = loop;
    q.count = 20;
    CHECK_OK(netio_timer_once(NULL, loop, FAR_MS, note, name("?")));
    uint64_t start = test_ms(), cpu = test_cpu_ms();
    test_thread_start(&thread, ask_slowly, &q);
    CHECK_OK(netio_loop_run(loop));
    test_thread_join(&thread);
    CHECK_RAN("aaaaaaaaaaaaaaaaaaaab");
    CHECK_BETWEEN(40, LONG_MS, test_ms() - start);
    if (!test_under("wine") && !test_under("valgrind") && !test_under("sanitizer"))
        CHECK_BETWEEN(0, test_ms() - start, test_cpu_ms() - cpu);
    close_loop();
}

//================================================================================================
// Driven from outside
//================================================================================================

static int pieces;

static void echo_data(netio_conn c, const void *data, size_t len)
{
    pieces++;
    CHECK_OK(netio_conn_write(c, data, len));
}

static const netio_handler echo = {.on_data = echo_data, .on_close = conn_gone};

// What a program with a loop of its own does: wait for the descriptor or for the time.
static void outer_turn(int limit_ms)
{
    netio_socket fd = netio_loop_poll_fd(loop);
    int wait = netio_loop_next_timeout(loop);
    if (wait < 0 || wait > limit_ms) wait = limit_ms;
    netio_wait(fd, NETIO_EV_READ, wait);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
}

static void post_by_thread(void *arg)
{
    netio_loop_post((netio_loop *)arg, note, NULL, name("p"), 0);
}

TEST(loop, another_loop_drives_it)
{
    netio_socket peer;
    char buf[8];
    ran[0] = 0;
    pieces = 0;
    open_loop();
    if (netio_loop_poll_fd(loop) == NETIO_INVALID_SOCKET) {
        close_loop();
        CHECK(test_backend() != NETIO_BACKEND_EPOLL && test_backend() != NETIO_BACKEND_KQUEUE);
        SKIP("this backend has no descriptor to wait for");
    }
    netio_conn c = adopt_pair(&peer, &echo);
    for (int i = 0; i < 5; i++) outer_turn(0);
    CHECK_ERR(NETIO_EAGAIN, netio_wait(netio_loop_poll_fd(loop), NETIO_EV_READ, 0)); // quiet
    for (int i = 0; i < 10; i++) {
        CHECK_ERR(4, netio_send(peer, "ping", 4, 1000));
        CHECK_ERR(NETIO_EV_READ, netio_wait(netio_loop_poll_fd(loop), NETIO_EV_READ, LONG_MS));
        while (pieces <= i) outer_turn(LONG_MS);
        CHECK_OK(netio_recv_exact(peer, buf, 4, NULL, LONG_MS));
    }
    // Written between turns: the next turn is due at once, or the bytes would never leave.
    CHECK_OK(netio_conn_write(c, "hello", 5));
    CHECK_EQ(0, netio_loop_next_timeout(loop));
    outer_turn(LONG_MS);
    CHECK_OK(netio_recv_exact(peer, buf, 5, NULL, LONG_MS));
    // Time.
    uint64_t start = netio_now_us();
    CHECK_OK(netio_timer_once(NULL, loop, 30, note, name("t")));
    CHECK_BETWEEN(1, 31, netio_loop_next_timeout(loop));
    while (ran[0] == 0) outer_turn(LONG_MS);
    CHECK_RAN("t");
    CHECK_BETWEEN(30000, 5000000, netio_now_us() - start);
    // A post from another thread makes the descriptor readable.
    test_thread_start(&thread, post_by_thread, loop);
    CHECK_ERR(NETIO_EV_READ, netio_wait(netio_loop_poll_fd(loop), NETIO_EV_READ, LONG_MS));
    while (ran[0] == 0) outer_turn(LONG_MS);
    test_thread_join(&thread);
    CHECK_RAN("p");
    CHECK_OK(netio_conn_close(c));
    CHECK_EQ(0, netio_loop_next_timeout(loop));
    CHECK_OK(netio_close(&peer));
    while (ran[0] == 0) outer_turn(LONG_MS);
    CHECK_RAN("c");
    close_loop();
}

// A game: a frame of 5 ms, and a turn without waiting in each. Works with every backend.
TEST(loop, a_frame_loop_drives_it)
{
    netio_socket peer;
    char buf[8];
    ran[0] = 0;
    pieces = 0;
    open_loop();
    adopt_pair(&peer, &echo);
    CHECK_OK(netio_timer_once(NULL, loop, 40, note, name("t")));
    uint64_t start = netio_now_us();
    for (int sent = 0; ran[0] == 0;) {
        if (sent == pieces) {
            CHECK_ERR(4, netio_send(peer, "ping", 4, 1000));
            sent++;
        }
        CHECK(netio_loop_run_once(loop, 0) >= 0);
        while (netio_recv(peer, buf, sizeof buf, 0) > 0) {}
        test_sleep_ms(5);
    }
    CHECK_RAN("t");
    CHECK_BETWEEN(40000, 5000000, netio_now_us() - start);
    CHECK(pieces >= 1);
    close_loop();
    CHECK_RAN("x");
    CHECK_OK(netio_close(&peer));
}

TEST(loop, its_time_stands_still_in_a_turn)
{
    open_loop();
    uint64_t last = netio_loop_now_ms(loop), real = netio_now_ms();
    CHECK_BETWEEN(0, 5000, real - last);
    for (int i = 0; i < 5; i++) {
        test_sleep_ms(5);
        CHECK(netio_loop_run_once(loop, 0) >= 0);
        uint64_t now = netio_loop_now_ms(loop);
        CHECK_BETWEEN(5, 5000, now - last);
        last = now;
    }
    close_loop();
}

//================================================================================================
// Counters
//================================================================================================

typedef struct watcher {
    netio_loop *loop;
    uint64_t last_in;
    int wrong;
} watcher;

static void read_stats(void *arg)
{
    watcher *w = (watcher *)arg;
    netio_stats s;
    for (int i = 0; i < 2000; i++) {
        netio_loop_stats(w->loop, &s);
        if (s.bytes_in < w->last_in || s.bytes_out > s.bytes_in) w->wrong++;
        w->last_in = s.bytes_in;
    }
}

TEST(loop, counters_can_be_read_by_another_thread)
{
    enum { ROUNDS = 500, LEN = 100 };
    char buf[LEN];
    watcher w;
    netio_socket peer;
    netio_stats s;
    memset(buf, 1, sizeof buf);
    memset(&w, 0, sizeof w);
    pieces = 0;
    ran[0] = 0;
    open_loop();
    w.loop = loop;
    adopt_pair(&peer, &echo);
    test_thread_start(&thread, read_stats, &w);
    for (int i = 0; i < ROUNDS; i++) {
        size_t done = 0;
        CHECK_ERR(LEN, netio_send(peer, buf, LEN, 1000));
        while (done < LEN) {
            CHECK(netio_loop_run_once(loop, 0) >= 0);
            ptrdiff_t n = netio_recv(peer, buf, LEN - done, 0);
            if (n > 0) done += (size_t)n;
        }
    }
    test_thread_join(&thread);
    CHECK_EQ(0, w.wrong);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    netio_loop_stats(loop, &s);
    CHECK_EQ(ROUNDS * LEN, s.bytes_in);
    CHECK_EQ(ROUNDS * LEN, s.bytes_out);
    CHECK_BETWEEN(pieces, pieces + 2 * ROUNDS, s.reads);
    CHECK_BETWEEN(1, pieces, s.writes);
    CHECK_EQ(1, s.opened);
    CHECK_EQ(0, s.closed);
    CHECK_EQ(1, s.active);
    CHECK(s.turns >= ROUNDS);
    CHECK_OK(netio_close(&peer));
    while (ran[0] == 0) CHECK(netio_loop_run_once(loop, LONG_MS) >= 0);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    netio_loop_stats(loop, &s);
    CHECK_EQ(1, s.closed);
    CHECK_EQ(0, s.active);
    CHECK_RAN("c");
    close_loop();
}

//================================================================================================
// Finish
//================================================================================================

static void say_goodbye(netio_conn c)
{
    say("s");
    CHECK_OK(netio_conn_write(c, "bye", 3));
    CHECK_OK(netio_conn_close(c));
}

static void only_say(netio_conn c)
{
    (void)c;
    say("s");
}

static void gone_by_force(netio_conn c, int err)
{
    (void)c;
    say(err < 0 && err != NETIO_ECANCELED ? "f" : "?");
}

static const netio_handler polite = {.on_stop = say_goodbye, .on_close = conn_gone};
static const netio_handler stuck = {.on_stop = only_say, .on_close = gone_by_force};

static void finish_5s(void *user)
{
    (void)user;
    netio_loop_finish(loop, 5000);
}

typedef struct reader {
    test_thread thread;
    netio_socket s;
    char got[64];
    int err;
} reader;

// Reads to the end, then closes, as a client does.
static void read_to_end(void *arg)
{
    reader *r = (reader *)arg;
    size_t len = 0;
    ptrdiff_t n;
    while ((n = netio_recv(r->s, r->got + len, sizeof r->got - 1 - len, LONG_MS)) > 0)
        len += (size_t)n;
    r->err = (int)n;
    netio_close(&r->s);
}

TEST(loop, finish_asks_all_and_ends_with_the_last)
{
    reader r[2];
    char text[NETIO_ADDR_TEXT];
    netio_addr a;
    netio_socket late;
    ran[0] = 0;
    memset(r, 0, sizeof r);
    open_loop();
    CHECK_OK(netio_listener_open(&listener, loop, "127.0.0.1:0", &only_close, NULL));
    CHECK_OK(netio_listener_addr(listener, &a));
    CHECK(netio_addr_format(&a, text, sizeof text) > 0);
    CHECK_OK(netio_udp_open(&endpoint, loop, "127.0.0.1:0", &udp_only_close, NULL));
    CHECK_OK(netio_timer_every(NULL, loop, FAR_MS, note, name("?")));
    for (int i = 0; i < 2; i++) { // the second has no on_stop: it is closed
        adopt_pair(&r[i].s, i == 0 ? &polite : &only_close);
        test_thread_start(&r[i].thread, read_to_end, &r[i]);
    }
    CHECK_OK(netio_timer_once(NULL, loop, 5, finish_5s, NULL));
    uint64_t start = test_ms();
    CHECK_OK(netio_loop_run(loop));
    CHECK_BETWEEN(0, 4900, test_ms() - start);
    for (int i = 0; i < 2; i++) test_thread_join(&r[i].thread);
    CHECK_ERR(NETIO_EOF, r[0].err);
    CHECK_ERR(NETIO_EOF, r[1].err);
    CHECK_STR("bye", r[0].got);
    CHECK_STR("", r[1].got);
    CHECK_EQ(4, strlen(ran)); // s, c, c, u in whatever order
    CHECK(strchr(ran, 's') && strchr(ran, 'c') != strrchr(ran, 'c') && strchr(ran, 'u'));
    CHECK(netio_connect(&late, text, NULL, LONG_MS) < 0); // the listener is gone
    close_loop();
}

static void never_mind(netio_conn c) { (void)c; }

static const netio_handler half_open = {
    .on_eof = never_mind, .on_stop = say_goodbye, .on_close = conn_gone};

TEST(loop, finish_lets_work_under_way_end)
{
    netio_socket peer;
    char buf[8];
    ran[0] = 0;
    open_loop();
    adopt_pair(&peer, &half_open);
    CHECK_OK(netio_shutdown(peer, NETIO_SHUT_WRITE));
    for (int i = 0; i < 3; i++) CHECK(netio_loop_run_once(loop, 10) >= 0);
    netio_loop_finish(loop, 5000);
    CHECK_OK(netio_loop_run(loop));
    CHECK_RAN("sc");
    CHECK_OK(netio_recv_exact(peer, buf, 3, NULL, LONG_MS));
    CHECK_MEM("bye", buf, 3);
    CHECK_ERR(NETIO_EOF, netio_recv(peer, buf, sizeof buf, LONG_MS));
    CHECK_OK(netio_close(&peer));
    close_loop();
}

TEST(loop, finish_aborts_the_rest_when_time_is_over)
{
    netio_socket peer;
    char buf[8];
    ran[0] = 0;
    open_loop();
    adopt_pair(&peer, &stuck);
    CHECK_OK(netio_timer_every(NULL, loop, 10, release, NULL));
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    uint64_t start = netio_now_us();
    netio_loop_finish(loop, 100);
    CHECK_OK(netio_loop_run(loop));
    CHECK_BETWEEN(100000, 5000000, netio_now_us() - start);
    CHECK_RAN("sf");
    ptrdiff_t n = netio_recv(peer, buf, sizeof buf, LONG_MS);
    CHECK(n == NETIO_ECONNRESET || (n == NETIO_EOF && test_under("wine"))); // which sends no RST
    CHECK_OK(netio_close(&peer));
    close_loop();
}

TEST(loop, finish_twice_stops_now)
{
    netio_socket peer;
    ran[0] = 0;
    open_loop();
    adopt_pair(&peer, &stuck);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    uint64_t start = test_ms();
    netio_loop_finish(loop, -1);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_RAN("s");
    netio_loop_finish(loop, -1);
    CHECK_OK(netio_loop_run(loop));
    CHECK_BETWEEN(0, 5000, test_ms() - start);
    CHECK_OK(netio_loop_destroy(loop));
    CHECK_EQ(1, strlen(ran)); // on_close, by the second call or by destroy
    CHECK_OK(netio_close(&peer));
}

TEST(loop, finish_with_nothing_open_ends_at_once)
{
    ran[0] = 0;
    open_loop();
    CHECK_OK(netio_timer_once(NULL, loop, FAR_MS, note, name("?")));
    netio_loop_finish(loop, -1);
    uint64_t start = test_ms();
    CHECK_OK(netio_loop_run(loop));
    CHECK_BETWEEN(0, 5000, test_ms() - start);
    CHECK_RAN("");
    close_loop();
}

//================================================================================================
// After fork
//================================================================================================

#ifndef _WIN32
static int in_child(int descriptors, long blocks)
{
    netio_loop_destroy_after_fork(loop);
    if (ran[0]) return 2; // a callback ran
    if (test_descriptors() != descriptors) return 3;
    if (test_blocks() != blocks) return 4;
    return 0;
}

TEST(loop, fork_leaves_the_loop_to_the_parent)
{
    netio_socket peer, watched[2], stranger;
    netio_addr to;
    char buf[8];
    int status = 0;
    ran[0] = 0;
    pieces = 0;
    test_tcp_pair(&watched[0], &watched[1]);
    CHECK_OK(netio_bind(&stranger, "127.0.0.1:0", NULL));
    int descriptors = test_descriptors() + 1; // `peer` to come
    long blocks = test_blocks();
    open_loop();
    netio_conn c = adopt_pair(&peer, &echo);
    CHECK_OK(netio_listener_open(&listener, loop, "127.0.0.1:0", &echo, NULL));
    CHECK_OK(netio_udp_open(&endpoint, loop, "127.0.0.1:0", &udp_only_close, NULL));
    CHECK_OK(netio_udp_addr(endpoint, &to));
    CHECK_OK(netio_watch_start(NULL, loop, watched[0], NETIO_EV_READ, busy_watch, NULL));
    CHECK_OK(netio_timer_every(NULL, loop, FAR_MS, note, name("?")));
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_OK(netio_conn_write(c, "queued", 6));
    CHECK_OK(netio_loop_post(loop, note, note, name("p"), 2));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) _exit(in_child(descriptors, blocks));
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    CHECK_EQ(0, WEXITSTATUS(status));
    // The child is gone, and nobody heard of it: connection, listener, endpoint and wake work.
    CHECK_ERR(NETIO_EAGAIN, netio_recv(peer, buf, sizeof buf, 0));
    CHECK(netio_loop_run_once(loop, LONG_MS) >= 1);
    CHECK_RAN("p");
    CHECK_OK(netio_recv_exact(peer, buf, 6, NULL, LONG_MS));
    CHECK_ERR(4, netio_send(peer, "ping", 4, 1000));
    while (pieces < 1) CHECK(netio_loop_run_once(loop, LONG_MS) >= 0);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_OK(netio_recv_exact(peer, buf, 4, NULL, LONG_MS));
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    netio_socket client;
    CHECK_OK(netio_listener_addr(listener, &a));
    CHECK(netio_addr_format(&a, text, sizeof text) > 0);
    CHECK_OK(netio_connect(&client, text, NULL, LONG_MS));
    CHECK_ERR(4, netio_send(client, "ping", 4, 1000));
    while (pieces < 2) CHECK(netio_loop_run_once(loop, LONG_MS) >= 0);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_OK(netio_recv_exact(client, buf, 4, NULL, LONG_MS));
    test_thread_start(&thread, post_by_thread, loop);
    while (ran[0] == 0) CHECK(netio_loop_run_once(loop, LONG_MS) >= 0);
    test_thread_join(&thread);
    CHECK_RAN("p");
    close_loop();
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&peer));
    CHECK_OK(netio_close(&stranger));
    CHECK_OK(netio_close(&watched[0]));
    CHECK_OK(netio_close(&watched[1]));
}

// In the middle of a callback, as a server does that starts a helper process.
static int child_status;

static void fork_in_task(void *user)
{
    int status = 0;
    const int *before = (const int *)user;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        netio_loop_destroy_after_fork(loop);
        _exit(test_descriptors() == *before ? 0 : 3);
    }
    child_status = waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    say("f");
}

TEST(loop, fork_inside_a_callback)
{
    netio_socket peer;
    char buf[8];
    ran[0] = 0;
    pieces = 0;
    child_status = -1;
    int before = test_descriptors() + 1;
    open_loop();
    adopt_pair(&peer, &echo);
    CHECK_OK(netio_loop_post(loop, fork_in_task, NULL, &before, 0));
    CHECK(netio_loop_run_once(loop, LONG_MS) >= 1);
    CHECK_RAN("f");
    CHECK_EQ(0, child_status);
    CHECK_ERR(4, netio_send(peer, "ping", 4, 1000));
    while (pieces < 1) CHECK(netio_loop_run_once(loop, LONG_MS) >= 0);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_OK(netio_recv_exact(peer, buf, 4, NULL, LONG_MS));
    close_loop();
    CHECK_OK(netio_close(&peer));
}
#else
TEST(loop, fork_leaves_the_loop_to_the_parent) { SKIP("there is no fork"); }
TEST(loop, fork_inside_a_callback) { SKIP("there is no fork"); }
#endif

TEST_MAIN(
    "loop", T(loop, create_says_what_is_missing),
    T(loop, create_and_post_survive_every_failing_allocation),
    T(loop, create_without_descriptors_is_emfile), T(loop, run_ends_at_once_when_nothing_is_left),
    T(loop, run_goes_on_while_a_timer_runs), T(loop, run_goes_on_while_posts_come),
    T(loop, run_goes_on_while_a_connection_is_open), T(loop, run_goes_on_while_a_listener_is_open),
    T(loop, run_goes_on_while_an_endpoint_is_open), T(loop, stop_ends_run_after_this_turn),
    T(loop, stop_in_a_timer_ends_run_after_its_batch),
    T(loop, stop_in_a_connection_keeps_the_bytes_of_others),
    T(loop, stop_before_run_ends_that_run_at_once), T(loop, stop_from_another_thread_ends_the_wait),
    T(loop, stop_from_a_signal_handler_ends_the_wait), T(loop, a_turn_tells_how_many_callbacks_ran),
    T(loop, a_turn_waits_no_longer_than_it_is_told), T(loop, an_idle_loop_sleeps),
    T(loop, no_callback_may_run_or_destroy_its_loop), T(loop, destroy_while_it_runs_is_busy),
    T(loop, destroy_ends_all_that_it_owns), T(loop, destroy_tells_each_connection_once),
    T(loop, posts_run_in_order), T(loop, a_task_posted_from_a_task_runs_in_the_next_turn),
    T(loop, a_payload_is_copied_at_once), T(loop, payloads_of_any_size),
    T(loop, hundred_thousand_posts_from_four_threads), T(loop, a_post_wakes_a_loop_that_sleeps),
    T(loop, another_loop_drives_it), T(loop, a_frame_loop_drives_it),
    T(loop, its_time_stands_still_in_a_turn), T(loop, counters_can_be_read_by_another_thread),
    T(loop, finish_asks_all_and_ends_with_the_last), T(loop, finish_lets_work_under_way_end),
    T(loop, finish_aborts_the_rest_when_time_is_over), T(loop, finish_twice_stops_now),
    T(loop, finish_with_nothing_open_ends_at_once), T(loop, fork_leaves_the_loop_to_the_parent),
    T(loop, fork_inside_a_callback))
