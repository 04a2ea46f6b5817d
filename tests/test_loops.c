// BACKENDS: all
//
// Several loops, each on a thread of its own: accepted sockets handed over, one port shared, posts
// between them, and the end of all. ThreadSanitizer is what makes these tests worth most.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifdef _WIN32
#include <windows.h>
static uint64_t this_thread(void) { return GetCurrentThreadId(); }
#else
#include <pthread.h>
static uint64_t this_thread(void)
{
    pthread_t self = pthread_self();
    uint64_t id = 0;
    memcpy(&id, &self, sizeof self < sizeof id ? sizeof self : sizeof id);
    return id;
}
#endif

enum { LOOPS = 4, LONG_MS = 10000, FAR_MS = 3600 * 1000 };

static int clients(void)
{
    return test_under("wine") || test_under("qemu") || test_under("valgrind") ? 80 : 400;
}

//================================================================================================
// Workers
//================================================================================================

// What only the loop's own thread touches, until it has been joined.
typedef struct worker {
    netio_loop *loop;
    test_thread thread;
    int number;
    uint64_t id;
    int run_err;
    int opened, closed, posts;
    int astray;   // callbacks on another thread
    int mixed_up; // letters out of order
    int next[LOOPS];
} worker;

static worker workers[LOOPS];

static worker *worker_of(const netio_loop *loop)
{
    for (int i = 0; i < LOOPS; i++)
        if (workers[i].loop == loop) return &workers[i];
    return NULL;
}

static void make_loop(netio_loop **out)
{
    netio_loop_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.backend = test_backend();
    CHECK_OK(netio_loop_create(out, &opts));
}

static void never(void *user) { (void)user; }

static void make_workers(void)
{
    memset(workers, 0, sizeof workers);
    for (int i = 0; i < LOOPS; i++) {
        workers[i].number = i;
        make_loop(&workers[i].loop);
        CHECK_OK(netio_timer_once(NULL, workers[i].loop, FAR_MS, never, NULL)); // keeps it running
    }
}

static void run_worker(void *arg)
{
    worker *w = (worker *)arg;
    w->id = this_thread();
    w->run_err = netio_loop_run(w->loop);
}

static void start_workers(void)
{
    for (int i = 0; i < LOOPS; i++) test_thread_start(&workers[i].thread, run_worker, &workers[i]);
}

static void join_workers(void)
{
    for (int i = 0; i < LOOPS; i++) test_thread_join(&workers[i].thread);
    for (int i = 0; i < LOOPS; i++) {
        CHECK_OK(workers[i].run_err);
        CHECK_EQ(0, workers[i].astray);
    }
}

static void stop_workers(void)
{
    for (int i = 0; i < LOOPS; i++) netio_loop_stop(workers[i].loop);
    join_workers();
}

static void destroy_workers(void)
{
    for (int i = 0; i < LOOPS; i++) CHECK_OK(netio_loop_destroy(workers[i].loop));
}

//================================================================================================
// A server on several loops
//================================================================================================

static worker *here(netio_conn c)
{
    worker *w = worker_of(netio_conn_loop(c));
    if (w->id != this_thread()) w->astray++;
    return w;
}

static void on_open(netio_conn c) { here(c)->opened++; }

static void on_data(netio_conn c, const void *data, size_t len)
{
    here(c);
    netio_conn_write(c, data, len);
}

static void on_close(netio_conn c, int err)
{
    worker *w = worker_of(netio_conn_loop(c));
    (void)err;
    w->closed++; // on its thread, or on that of destroy
}

static const netio_handler echo = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void address_of(netio_listener l, char text[NETIO_ADDR_TEXT])
{
    netio_addr a;
    CHECK_OK(netio_listener_addr(l, &a));
    CHECK(netio_addr_format(&a, text, NETIO_ADDR_TEXT) > 0);
}

// Each connection is echoed once. Some stay open until all are done.
static void be_clients(const char *address, int count)
{
    netio_socket open[16];
    char buf[8];
    for (int i = 0; i < 16; i++) open[i] = NETIO_INVALID_SOCKET;
    for (int i = 0; i < count; i++) {
        netio_socket *s = &open[i % 16];
        if (*s != NETIO_INVALID_SOCKET) CHECK_OK(netio_close(s));
        CHECK_OK(netio_connect(s, address, NULL, LONG_MS));
        CHECK_OK(netio_send_all(*s, "ping", 4, NULL, LONG_MS));
        CHECK_OK(netio_recv_exact(*s, buf, 4, NULL, LONG_MS));
        CHECK_MEM("ping", buf, 4);
    }
    for (int i = 0; i < 16; i++)
        if (open[i] != NETIO_INVALID_SOCKET) CHECK_OK(netio_close(&open[i]));
}

static int sum_opened(void)
{
    int sum = 0;
    for (int i = 0; i < LOOPS; i++) {
        CHECK(workers[i].opened > 0);
        sum += workers[i].opened;
    }
    return sum;
}

TEST(loops, accepted_sockets_are_handed_over_in_turn)
{
    netio_loop *all[LOOPS];
    netio_listener_opts opts;
    netio_listener l;
    char text[NETIO_ADDR_TEXT];
    make_workers();
    for (int i = 0; i < LOOPS; i++) all[i] = workers[i].loop;
    memset(&opts, 0, sizeof opts);
    opts.workers = all;
    opts.worker_count = LOOPS;
    CHECK_OK(netio_listener_open(&l, workers[0].loop, "127.0.0.1:0", &echo, &opts));
    address_of(l, text);
    start_workers();
    be_clients(text, clients());
    stop_workers();
    for (int i = 0; i < LOOPS; i++) CHECK_EQ(clients() / LOOPS, workers[i].opened);
    CHECK_EQ(clients(), sum_opened());
    destroy_workers();
    for (int i = 0; i < LOOPS; i++) CHECK_EQ(workers[i].opened, workers[i].closed);
}

// One loop accepts and serves nothing itself.
TEST(loops, an_acceptor_keeps_none_for_itself)
{
    netio_loop *three[LOOPS - 1];
    netio_listener_opts opts;
    netio_listener l;
    char text[NETIO_ADDR_TEXT];
    make_workers();
    for (int i = 1; i < LOOPS; i++) three[i - 1] = workers[i].loop;
    memset(&opts, 0, sizeof opts);
    opts.workers = three;
    opts.worker_count = LOOPS - 1;
    CHECK_OK(netio_listener_open(&l, workers[0].loop, "127.0.0.1:0", &echo, &opts));
    memset(three, 0, sizeof three); // copied
    address_of(l, text);
    start_workers();
    be_clients(text, 60);
    stop_workers();
    CHECK_EQ(0, workers[0].opened);
    for (int i = 1; i < LOOPS; i++) CHECK_EQ(20, workers[i].opened);
    destroy_workers();
}

// A worker that does not run takes them later, or closes them when it ends.
TEST(loops, what_waits_for_a_worker_is_not_lost)
{
    netio_listener_opts opts;
    netio_listener l;
    netio_socket s[6];
    char text[NETIO_ADDR_TEXT], buf[8];
    for (int round = 0; round < 2; round++) {
        make_workers();
        memset(&opts, 0, sizeof opts);
        opts.workers = &workers[1].loop;
        opts.worker_count = 1;
        CHECK_OK(netio_listener_open(&l, workers[0].loop, "127.0.0.1:0", &echo, &opts));
        address_of(l, text);
        for (int i = 0; i < 6; i++) {
            CHECK_OK(netio_connect(&s[i], text, NULL, LONG_MS));
            CHECK_OK(netio_send_all(s[i], "ping", 4, NULL, LONG_MS));
        }
        for (int i = 0; i < 10; i++) CHECK(netio_loop_run_once(workers[0].loop, 5) >= 0);
        workers[1].id = this_thread();
        if (round == 1) {
            for (int i = 0; i < 10 || workers[1].opened < 6; i++)
                CHECK(netio_loop_run_once(workers[1].loop, 5) >= 0);
            for (int i = 0; i < 6; i++) {
                while (netio_recv(s[i], buf, 4, 5) != 4)
                    CHECK(netio_loop_run_once(workers[1].loop, 5) >= 0);
            }
        }
        destroy_workers(); // the listener's loop before its worker: the other order is misuse
        CHECK_EQ(round == 1 ? 6 : 0, workers[1].opened);
        CHECK_EQ(workers[1].opened, workers[1].closed);
        for (int i = 0; i < 6; i++) {
            ptrdiff_t n = netio_recv(s[i], buf, sizeof buf, LONG_MS);
            CHECK(n == NETIO_EOF || n == NETIO_ECONNRESET || n == NETIO_ECONNABORTED);
            CHECK_OK(netio_close(&s[i]));
        }
    }
}

TEST(loops, the_kernel_balances_a_shared_port)
{
    netio_listener_opts opts;
    netio_listener l;
    char text[NETIO_ADDR_TEXT];
    memset(&opts, 0, sizeof opts);
    opts.socket.balance = true;
    make_workers();
    int err = netio_listener_open(&l, workers[0].loop, "127.0.0.1:0", &echo, &opts);
    if (err == NETIO_ENOTSUP) {
        destroy_workers();
        SKIP("this system does not balance");
    }
    CHECK_OK(err);
    address_of(l, text);
    for (int i = 1; i < LOOPS; i++)
        CHECK_OK(netio_listener_open(NULL, workers[i].loop, text, &echo, &opts));
    start_workers();
    be_clients(text, clients());
    stop_workers();
    CHECK_EQ(clients(), sum_opened());
    destroy_workers();
    for (int i = 0; i < LOOPS; i++) CHECK_EQ(workers[i].opened, workers[i].closed);
}

static void finish_own(void *user) { netio_loop_finish(((worker *)user)->loop, 5000); }

// A graceful end of all of them: each is asked on its own thread.
TEST(loops, all_finish_together)
{
    netio_loop *all[LOOPS];
    netio_listener_opts opts;
    netio_listener l;
    char text[NETIO_ADDR_TEXT], buf[8];
    netio_socket s[8];
    make_workers();
    for (int i = 0; i < LOOPS; i++) all[i] = workers[i].loop;
    memset(&opts, 0, sizeof opts);
    opts.workers = all;
    opts.worker_count = LOOPS;
    opts.conn.close_timeout_ms = 500;
    CHECK_OK(netio_listener_open(&l, workers[0].loop, "127.0.0.1:0", &echo, &opts));
    address_of(l, text);
    start_workers();
    for (int i = 0; i < 8; i++) {
        CHECK_OK(netio_connect(&s[i], text, NULL, LONG_MS));
        CHECK_OK(netio_send_all(s[i], "ping", 4, NULL, LONG_MS));
        CHECK_OK(netio_recv_exact(s[i], buf, 4, NULL, LONG_MS));
    }
    uint64_t start = test_ms();
    for (int i = 0; i < LOOPS; i++)
        CHECK_OK(netio_loop_post(workers[i].loop, finish_own, NULL, &workers[i], 0));
    for (int i = 0; i < 8; i++) {
        CHECK_ERR(NETIO_EOF, netio_recv(s[i], buf, sizeof buf, LONG_MS));
        CHECK_OK(netio_close(&s[i]));
    }
    join_workers(); // run has returned by itself
    CHECK_BETWEEN(0, 4500, test_ms() - start);
    for (int i = 0; i < LOOPS; i++) {
        CHECK_EQ(2, workers[i].opened);
        CHECK_EQ(2, workers[i].closed);
    }
    destroy_workers();
}

//================================================================================================
// Counters
//================================================================================================

static uint64_t seen_bytes;

static void watch_stats(void *arg)
{
    (void)arg;
    for (int i = 0; i < 500; i++) {
        netio_stats s;
        uint64_t sum = 0;
        for (int k = 0; k < LOOPS; k++) {
            netio_loop_stats(workers[k].loop, &s);
            sum += s.bytes_in;
        }
        if (sum < seen_bytes) seen_bytes = UINT64_MAX; // went back
        else seen_bytes = sum;
    }
}

TEST(loops, their_counters_add_up)
{
    netio_loop *all[LOOPS];
    netio_listener_opts opts;
    netio_listener l;
    netio_stats s, sum;
    test_thread watcher;
    char text[NETIO_ADDR_TEXT];
    uint64_t n = (uint64_t)clients() / 4;
    make_workers();
    for (int i = 0; i < LOOPS; i++) all[i] = workers[i].loop;
    memset(&opts, 0, sizeof opts);
    memset(&sum, 0, sizeof sum);
    seen_bytes = 0;
    opts.workers = all;
    opts.worker_count = LOOPS;
    CHECK_OK(netio_listener_open(&l, workers[0].loop, "127.0.0.1:0", &echo, &opts));
    address_of(l, text);
    start_workers();
    test_thread_start(&watcher, watch_stats, NULL);
    be_clients(text, (int)n);
    test_thread_join(&watcher);
    stop_workers();
    for (int i = 0; i < LOOPS; i++) {
        CHECK(netio_loop_run_once(workers[i].loop, 0) >= 0);
        netio_loop_stats(workers[i].loop, &s);
        sum.bytes_in += s.bytes_in;
        sum.bytes_out += s.bytes_out;
        sum.opened += s.opened;
        sum.accepted += s.accepted;
        CHECK(s.turns > 0);
    }
    CHECK(seen_bytes <= 4 * n);
    CHECK_EQ(4 * n, sum.bytes_in);
    CHECK_EQ(4 * n, sum.bytes_out);
    CHECK_EQ(n, sum.opened);
    CHECK_EQ(n, sum.accepted);
    destroy_workers();
}

//================================================================================================
// Posts between loops
//================================================================================================

typedef struct token {
    int at, left;
} token;

static void pass_on(void *user)
{
    token t = *(const token *)user; // the copy is this task's
    worker *w = &workers[t.at];
    w->posts++;
    if (w->id != this_thread()) w->astray++;
    if (t.left-- == 0) {
        for (int i = 0; i < LOOPS; i++) netio_loop_stop(workers[i].loop);
        return;
    }
    t.at = (t.at + 1) % LOOPS;
    if (netio_loop_post(workers[t.at].loop, pass_on, NULL, &t, sizeof t) != 0) w->mixed_up++;
}

TEST(loops, a_token_goes_round)
{
    enum { ROUNDS = 2000 };
    token t;
    make_workers();
    start_workers();
    t.at = 0;
    t.left = LOOPS * ROUNDS - 1;
    CHECK_OK(netio_loop_post(workers[0].loop, pass_on, NULL, &t, sizeof t));
    join_workers();
    for (int i = 0; i < LOOPS; i++) CHECK_EQ(ROUNDS, workers[i].posts);
    destroy_workers();
}

enum { LETTERS = 3000 };

typedef struct letter {
    int from, to, number;
} letter;

static void receive(void *user)
{
    const letter *l = (const letter *)user;
    worker *w = &workers[l->to];
    if (w->id != this_thread()) w->astray++;
    if (w->next[l->from]++ != l->number) w->mixed_up++;
    if (++w->posts == LOOPS * LETTERS) netio_loop_stop(w->loop);
}

static void write_letters(void *user)
{
    const worker *w = (const worker *)user;
    for (int i = 0; i < LETTERS; i++)
        for (int to = 0; to < LOOPS; to++) {
            letter l;
            l.from = w->number;
            l.to = to;
            l.number = i;
            netio_loop_post(workers[to].loop, receive, NULL, &l, sizeof l);
        }
}

TEST(loops, everyone_writes_to_everyone)
{
    make_workers();
    for (int i = 0; i < LOOPS; i++)
        CHECK_OK(netio_loop_post(workers[i].loop, write_letters, NULL, &workers[i], 0));
    start_workers();
    join_workers();
    for (int i = 0; i < LOOPS; i++) {
        CHECK_EQ(0, workers[i].mixed_up);
        for (int k = 0; k < LOOPS; k++) CHECK_EQ(LETTERS, workers[i].next[k]);
    }
    destroy_workers();
}

//================================================================================================
// Loops that come and go
//================================================================================================

typedef struct life {
    test_thread thread;
    int backend;
    int rounds, wrong;
} life;

static void life_open(netio_conn c)
{
    netio_conn_write(c, "x", 1);
    netio_conn_close(c);
}

static void life_close(netio_conn c, int err)
{
    life *l = (life *)netio_conn_user(c);
    if (err != 0) l->wrong++;
}

static const netio_handler short_life = {.on_open = life_open, .on_close = life_close};

static void live(void *arg)
{
    life *l = (life *)arg;
    netio_loop_opts opts;
    netio_conn_opts conn;
    memset(&opts, 0, sizeof opts);
    memset(&conn, 0, sizeof conn);
    opts.backend = l->backend;
    conn.user = l;
    for (int i = 0; i < l->rounds; i++) {
        netio_loop *loop;
        netio_socket pair[2];
        netio_conn c;
        if (netio_loop_create(&loop, &opts) != 0 || netio_pair(pair, NETIO_STREAM) != 0) {
            l->wrong++;
            return;
        }
        for (int k = 0; k < 2; k++)
            if (netio_conn_adopt(&c, loop, pair[k], &short_life, &conn) != 0) l->wrong++;
        netio_timer_once(NULL, loop, 1, never, NULL);
        netio_loop_post(loop, never, NULL, NULL, 0);
        if (netio_loop_run(loop) != 0) l->wrong++;
        if (netio_loop_destroy(loop) != 0) l->wrong++;
    }
}

TEST(loops, threads_make_and_destroy_their_own)
{
    enum { THREADS = 8 };
    life l[THREADS];
    memset(l, 0, sizeof l);
    for (int i = 0; i < THREADS; i++) {
        l[i].backend = test_backend();
        l[i].rounds = test_under("wine") || test_under("valgrind") ? 3 : 20;
        test_thread_start(&l[i].thread, live, &l[i]);
    }
    for (int i = 0; i < THREADS; i++) test_thread_join(&l[i].thread);
    for (int i = 0; i < THREADS; i++) CHECK_EQ(0, l[i].wrong);
}

TEST(loops, a_loop_moves_from_thread_to_thread)
{
    netio_listener l;
    char text[NETIO_ADDR_TEXT];
    make_workers();
    CHECK_OK(netio_listener_open(&l, workers[0].loop, "127.0.0.1:0", &echo, NULL));
    address_of(l, text);
    for (int i = 0; i < 3; i++) { // one after the other
        test_thread_start(&workers[0].thread, run_worker, &workers[0]);
        be_clients(text, 5);
        netio_loop_stop(workers[0].loop);
        test_thread_join(&workers[0].thread);
        CHECK_OK(workers[0].run_err);
        CHECK_EQ(5 * (i + 1), workers[0].opened);
    }
    CHECK_EQ(0, workers[0].astray);
    destroy_workers();
}

TEST_MAIN("loops", T(loops, accepted_sockets_are_handed_over_in_turn),
          T(loops, an_acceptor_keeps_none_for_itself),
          T(loops, what_waits_for_a_worker_is_not_lost),
          T(loops, the_kernel_balances_a_shared_port), T(loops, all_finish_together),
          T(loops, their_counters_add_up), T(loops, a_token_goes_round),
          T(loops, everyone_writes_to_everyone), T(loops, threads_make_and_destroy_their_own),
          T(loops, a_loop_moves_from_thread_to_thread))
