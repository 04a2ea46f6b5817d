// The pool of things that are costly to open, by one thread and by many.
//
// The things are entries of a workshop that counts what happens to each: how often it is opened,
// given out twice, checked, closed. Short enough for ThreadSanitizer.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifndef NETIO_NO_THREADS

#ifdef _WIN32
#include <winsock2.h>
#include <windows.h>
static SRWLOCK mutex = SRWLOCK_INIT;
static void locked(void) { AcquireSRWLockExclusive(&mutex); }
static void unlocked(void) { ReleaseSRWLockExclusive(&mutex); }
#else
#include <pthread.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void locked(void) { pthread_mutex_lock(&mutex); }
static void unlocked(void) { pthread_mutex_unlock(&mutex); }
#endif

//================================================================================================
// The workshop
//================================================================================================

enum { ITEMS = 4096 };

typedef struct item {
    bool open, used, broken;
    int checks;
} item;

typedef struct workshop {
    item items[ITEMS];
    int opens, closes, checks;
    int open_now, open_most; // at once
    int used_now, used_most;
    int wrong;      // what must never happen: closed twice, used by two, given out closed
    int fail;       // what open returns; 0: it works
    int timeout_ms; // that open was given last
    int late_ms;    // how long a check takes
    netio_socket
        gate[2];      // open and close wait for a byte on [0], having sent one; invalid: no gate
    netio_pool *pool; // open takes and gives back one of these first
} workshop;

static workshop *workshop_new(void)
{
    static workshop w;
    memset(&w, 0, sizeof w);
    w.gate[0] = w.gate[1] = NETIO_INVALID_SOCKET;
    return &w;
}

static void pass_gate(workshop *w)
{
    char byte = 'x';
    if (w->gate[0] == NETIO_INVALID_SOCKET) return;
    if (netio_send_all(w->gate[0], &byte, 1, NULL, 10000) < 0) abort();
    if (netio_recv(w->gate[0], &byte, 1, 10000) != 1) abort();
}

static void someone_at_gate(workshop *w) // waits until there is
{
    char byte;
    CHECK_EQ(1, netio_recv(w->gate[1], &byte, 1, 10000));
}

static void open_gate(workshop *w) { CHECK_OK(netio_send_all(w->gate[1], "x", 1, NULL, 1000)); }

static int item_open(void *user, void **out, int timeout_ms)
{
    workshop *w = (workshop *)user;
    int err;
    pass_gate(w);
    if (w->pool) {
        void *other;
        err = netio_pool_acquire(w->pool, &other, 10);
        if (err < 0) return err;
        netio_pool_release(w->pool, other, false);
    }
    locked();
    err = w->fail;
    w->timeout_ms = timeout_ms;
    if (err == 0) {
        item *made = &w->items[w->opens++];
        made->open = true;
        *out = made;
        if (++w->open_now > w->open_most) w->open_most = w->open_now;
    }
    unlocked();
    return err;
}

static void item_close(void *user, void *which)
{
    workshop *w = (workshop *)user;
    item *it = (item *)which;
    pass_gate(w);
    locked();
    if (!it->open || it->used) w->wrong++;
    it->open = false;
    w->closes++;
    w->open_now--;
    unlocked();
}

static bool item_check(void *user, void *which)
{
    workshop *w = (workshop *)user;
    item *it = (item *)which;
    bool good;
    if (w->late_ms) test_sleep_ms(w->late_ms);
    locked();
    if (!it->open || it->used) w->wrong++;
    it->checks++;
    w->checks++;
    good = !it->broken;
    unlocked();
    return good;
}

// Acquire and release, with the workshop's bookkeeping.
static int take(workshop *w, netio_pool *p, item **out, int timeout_ms)
{
    void *got = NULL;
    int err = netio_pool_acquire(p, &got, timeout_ms);
    if (err < 0) return err;
    *out = (item *)got;
    locked();
    if (!(*out)->open || (*out)->used) w->wrong++;
    (*out)->used = true;
    if (++w->used_now > w->used_most) w->used_most = w->used_now;
    unlocked();
    return err;
}

static void give(workshop *w, netio_pool *p, item *it, bool broken)
{
    locked();
    if (!it->used) w->wrong++;
    it->used = false;
    w->used_now--;
    unlocked();
    netio_pool_release(p, it, broken);
}

static netio_pool_opts opts_of(workshop *w, size_t max)
{
    netio_pool_opts o = {0};
    o.user = w;
    o.max = max;
    o.open = item_open;
    o.close = item_close;
    o.check = item_check;
    return o;
}

static netio_pool *pool_of(workshop *w, size_t max)
{
    netio_pool_opts o = opts_of(w, max);
    netio_pool *p;
    CHECK_OK(netio_pool_create(&p, &o));
    return p;
}

// Destroyed, with nothing out: all that was opened is closed.
static void finish(workshop *w, netio_pool *p)
{
    netio_pool_destroy(p);
    CHECK_EQ(0, w->wrong);
    CHECK_EQ(w->opens, w->closes);
    CHECK_EQ(0, w->open_now);
}

//================================================================================================
// One thread
//================================================================================================

TEST(pool, opens_when_asked_and_keeps_what_comes_back)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 3);
    item *a, *b, *c;
    CHECK_EQ(0, w->opens);
    CHECK_OK(take(w, p, &a, 1000));
    CHECK_OK(take(w, p, &b, 1000));
    CHECK_EQ(2, w->opens);
    give(w, p, a, false);
    give(w, p, b, false);
    CHECK_OK(take(w, p, &c, 1000));
    CHECK(c == b); // the one that came back last
    CHECK_OK(take(w, p, &b, 1000));
    CHECK(b == a);
    CHECK_EQ(2, w->opens);
    give(w, p, b, false);
    give(w, p, c, false);
    CHECK_EQ(0, w->closes);
    CHECK_EQ(0, w->checks); // none was idle for 10 seconds
    finish(w, p);
}

TEST(pool, an_exhausted_one_is_busy_or_times_out)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 2);
    item *a, *b, *c = NULL;
    uint64_t begin;
    CHECK_OK(take(w, p, &a, 0));
    CHECK_OK(take(w, p, &b, -1));
    CHECK_ERR(NETIO_EBUSY, take(w, p, &c, 0));
    begin = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, take(w, p, &c, 60));
    CHECK_BETWEEN(59, 5000, test_ms() - begin);
    CHECK(c == NULL);
    CHECK_EQ(2, w->opens);
    give(w, p, a, false);
    CHECK_OK(take(w, p, &c, 0));
    CHECK(c == a);
    give(w, p, b, false);
    give(w, p, c, false);
    finish(w, p);
}

TEST(pool, ten_is_the_usual_most)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 0);
    item *it[10], *more;
    for (int i = 0; i < 10; i++) CHECK_OK(take(w, p, &it[i], 0));
    CHECK_ERR(NETIO_EBUSY, take(w, p, &more, 0));
    for (int i = 0; i < 10; i++) give(w, p, it[i], false);
    finish(w, p);
}

TEST(pool, a_broken_one_is_closed_and_makes_room)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 1);
    item *last = NULL;
    for (int i = 0; i < 20; i++) {
        item *it;
        CHECK_OK(take(w, p, &it, 0));
        CHECK(it != last); // never given out again
        give(w, p, it, true);
        CHECK_EQ(i + 1, w->closes);
        last = it;
    }
    CHECK_EQ(20, w->opens);
    finish(w, p);
}

TEST(pool, hands_on_why_it_could_not_open)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 1);
    item *it = NULL;
    static const int causes[] = {NETIO_ECONNREFUSED, NETIO_EAGAIN, NETIO_ETIMEDOUT, -12345};
    for (int i = 0; i < 4; i++) {
        w->fail = causes[i];
        CHECK_ERR(causes[i], take(w, p, &it, 1000)); // and keeps no place for it
        CHECK(it == NULL);
    }
    w->fail = 0;
    CHECK_OK(take(w, p, &it, 1000));
    give(w, p, it, false);
    finish(w, p);
}

TEST(pool, open_gets_the_time_of_acquire)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 1);
    static const int times[] = {0, -1, 5000};
    for (int i = 0; i < 3; i++) {
        item *it;
        CHECK_OK(take(w, p, &it, times[i]));
        CHECK_EQ(times[i], w->timeout_ms);
        give(w, p, it, true);
    }
    finish(w, p);
}

TEST(pool, the_check_replaces_what_broke_while_idle)
{
    workshop *w = workshop_new();
    netio_pool_opts o = opts_of(w, 5);
    netio_pool *p;
    item *it[5];
    o.check_ms = -1; // always
    CHECK_OK(netio_pool_create(&p, &o));
    for (int i = 0; i < 5; i++) CHECK_OK(take(w, p, &it[i], 0));
    for (int i = 0; i < 5; i++) give(w, p, it[i], false);
    it[1]->broken = it[3]->broken = true; // the server closed two
    for (int i = 0; i < 5; i++) {
        CHECK_OK(take(w, p, &it[i], 0));
        CHECK(!it[i]->broken);
    }
    CHECK_EQ(7, w->opens);
    CHECK_EQ(2, w->closes);
    CHECK_EQ(5, w->checks);
    for (int i = 0; i < 5; i++) give(w, p, it[i], false);
    finish(w, p);
}

TEST(pool, shrinks_while_the_server_is_down_and_recovers)
{
    workshop *w = workshop_new();
    netio_pool_opts o = opts_of(w, 4);
    netio_pool *p;
    item *it[4];
    o.check_ms = -1;
    CHECK_OK(netio_pool_create(&p, &o));
    for (int i = 0; i < 4; i++) CHECK_OK(take(w, p, &it[i], 0));
    for (int i = 0; i < 4; i++) {
        give(w, p, it[i], false);
        it[i]->broken = true;
    }
    w->fail = NETIO_ECONNREFUSED;
    for (int i = 0; i < 3; i++) CHECK_ERR(NETIO_ECONNREFUSED, take(w, p, &it[0], 1000));
    CHECK_EQ(0, w->open_now);
    w->fail = 0;
    for (int i = 0; i < 4; i++) CHECK_OK(take(w, p, &it[i], 0));
    CHECK_EQ(8, w->opens);
    for (int i = 0; i < 4; i++) give(w, p, it[i], false);
    finish(w, p);
}

TEST(pool, a_slow_check_uses_up_the_time)
{
    workshop *w = workshop_new();
    netio_pool_opts o = opts_of(w, 2);
    netio_pool *p;
    item *it;
    o.check_ms = -1;
    CHECK_OK(netio_pool_create(&p, &o));
    CHECK_OK(take(w, p, &it, 0));
    give(w, p, it, false);
    w->late_ms = 20;
    CHECK_OK(take(w, p, &it, 5)); // good, though late
    give(w, p, it, false);
    it->broken = true;
    CHECK_ERR(NETIO_ETIMEDOUT, take(w, p, &it, 5)); // there is room, but no time to open one
    CHECK_EQ(1, w->opens);
    finish(w, p);
}

TEST(pool, without_a_check_all_are_good)
{
    workshop *w = workshop_new();
    netio_pool_opts o = opts_of(w, 1);
    netio_pool *p;
    item *it;
    o.check = NULL;
    o.check_ms = -1;
    CHECK_OK(netio_pool_create(&p, &o));
    memset(&o, 0xA5, sizeof o); // they were copied
    for (int i = 0; i < 3; i++) {
        CHECK_OK(take(w, p, &it, 0));
        give(w, p, it, false);
    }
    CHECK_EQ(1, w->opens);
    finish(w, p);
}

TEST(pool, checks_and_closes_what_was_idle_for_long)
{
    workshop *w = workshop_new();
    netio_pool_opts o = opts_of(w, 3);
    netio_pool *p;
    item *a, *b, *c;
    o.check_ms = 20;
    CHECK_OK(netio_pool_create(&p, &o));
    CHECK_OK(take(w, p, &a, 0));
    give(w, p, a, false);
    test_sleep_ms(25); // late on purpose, as below
    CHECK_OK(take(w, p, &a, 0));
    CHECK_EQ(1, w->checks);
    give(w, p, a, false);
    finish(w, p);

    w = workshop_new();
    o.idle_ms = 200;
    CHECK_OK(netio_pool_create(&p, &o));
    CHECK_OK(take(w, p, &a, 0));
    CHECK_OK(take(w, p, &b, 0));
    CHECK_OK(take(w, p, &c, 0));
    give(w, p, a, false);
    give(w, p, b, false);
    test_sleep_ms(205);
    give(w, p, c, false); // looks at the others, too
    CHECK_EQ(2, w->closes);
    CHECK(!a->open && !b->open && c->open);
    test_sleep_ms(205);
    CHECK_OK(take(w, p, &a, 0));
    CHECK(a != c && !c->open);
    CHECK_EQ(4, w->opens);
    CHECK_EQ(0, w->checks); // what is closed needs none
    give(w, p, a, false);
    finish(w, p);
}

TEST(pool, destroyed_while_some_are_out)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 3);
    item *a, *b, *c;
    CHECK_OK(take(w, p, &a, 0));
    CHECK_OK(take(w, p, &b, 0));
    CHECK_OK(take(w, p, &c, 0));
    give(w, p, c, false);
    netio_pool_destroy(p);
    CHECK_EQ(1, w->closes); // the idle one
    CHECK(a->open && b->open && !c->open);
    CHECK_ERR(NETIO_ECANCELED, take(w, p, &c, 1000)); // there still is a pool, as some are out
    give(w, p, a, false);
    CHECK_EQ(2, w->closes);
    give(w, p, b, true); // with the last one it is gone: the runner counts the memory
    CHECK_EQ(3, w->closes);
    CHECK_EQ(0, w->wrong);
    netio_pool_destroy(NULL);
}

TEST(pool, refuses_senseless_options)
{
    workshop *w = workshop_new();
    netio_pool_opts good = opts_of(w, 1), o;
    netio_pool *p = NULL;
    void *it;
    CHECK_ERR(NETIO_EINVAL, netio_pool_create(NULL, &good));
    CHECK_ERR(NETIO_EINVAL, netio_pool_create(&p, NULL));
    o = good;
    o.open = NULL;
    CHECK_ERR(NETIO_EINVAL, netio_pool_create(&p, &o));
    o = good;
    o.close = NULL;
    CHECK_ERR(NETIO_EINVAL, netio_pool_create(&p, &o));
    o = good;
    o.check_ms = -2;
    CHECK_ERR(NETIO_EINVAL, netio_pool_create(&p, &o));
    o = good;
    o.idle_ms = -1;
    CHECK_ERR(NETIO_EINVAL, netio_pool_create(&p, &o));
    o = good;
    o.max = SIZE_MAX;
    CHECK_ERR(NETIO_ENOMEM, netio_pool_create(&p, &o));
    CHECK(p == NULL);
    CHECK_OK(netio_pool_create(&p, &good));
    CHECK_ERR(NETIO_EINVAL, netio_pool_acquire(NULL, &it, 0));
    CHECK_ERR(NETIO_EINVAL, netio_pool_acquire(p, NULL, 0));
    netio_pool_release(NULL, w, false);
    CHECK_EQ(0, w->opens);
    finish(w, p);
}

TEST(pool, survives_failed_allocations)
{
    workshop *w = workshop_new();
    netio_pool_opts o = opts_of(w, 4);
    netio_pool *p = NULL;
    long n = 0, before;
    int err;
    do {
        before = test_allocs();
        test_alloc_fail_at(++n);
        err = netio_pool_create(&p, &o);
        test_alloc_fail_at(0);
        if (err < 0) CHECK_ERR(NETIO_ENOMEM, err);
        CHECK((p != NULL) == (err == 0));
    } while (err < 0);
    CHECK_EQ(n - 1, test_allocs() - before); // each of them failed once
    CHECK(n > 1);
    before = test_allocs();
    item *it;
    CHECK_OK(take(w, p, &it, 0));
    give(w, p, it, false);
    CHECK_EQ(before, test_allocs()); // no more from here on
    finish(w, p);
}

TEST(pool, callbacks_may_use_it)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 2);
    item *a, *b;
    CHECK_OK(take(w, p, &a, 0));
    give(w, p, a, false);
    CHECK_OK(take(w, p, &a, 0));
    w->pool = p; // open of the second finds none idle and would open a third
    CHECK_ERR(NETIO_ETIMEDOUT, take(w, p, &b, 1));
    w->pool = NULL;
    CHECK_OK(take(w, p, &b, 0));
    give(w, p, a, false);
    give(w, p, b, false);
    finish(w, p);
}

//================================================================================================
// Many threads
//================================================================================================

typedef struct worker {
    workshop *w;
    netio_pool *p;
    int rounds, timeout_ms;
    uint32_t random;
    int err, done;
    uint64_t took_ms;
    item *got; // the last one, kept
} worker;

static void work(void *arg)
{
    worker *k = (worker *)arg;
    for (k->done = 0; k->done < k->rounds; k->done++) {
        item *it;
        k->err = take(k->w, k->p, &it, k->timeout_ms);
        if (k->err < 0) return;
        it->checks++; // it is this thread's alone
        give(k->w, k->p, it, test_random(&k->random) % 16 == 0);
    }
}

static void take_one(void *arg)
{
    worker *k = (worker *)arg;
    uint64_t begin = test_ms();
    k->err = take(k->w, k->p, &k->got, k->timeout_ms);
    k->took_ms = test_ms() - begin;
}

static void worker_start(test_thread *t, worker *k, workshop *w, netio_pool *p,
                         void (*run)(void *arg))
{
    memset(k, 0, sizeof *k);
    k->w = w;
    k->p = p;
    k->timeout_ms = 20000;
    k->rounds = test_under("qemu") || test_under("valgrind") ? 100 : 500;
    k->random = (uint32_t)(uintptr_t)t | 1;
    test_thread_start(t, run, k);
}

TEST(pool, ten_workers_share_five)
{
    workshop *w = workshop_new();
    netio_pool_opts o = opts_of(w, 5);
    netio_pool *p;
    test_thread thread[10];
    worker k[10];
    o.check_ms = -1;
    CHECK_OK(netio_pool_create(&p, &o));
    for (int i = 0; i < 10; i++) worker_start(&thread[i], &k[i], w, p, work);
    for (int i = 0; i < 10; i++) test_thread_join(&thread[i]);
    for (int i = 0; i < 10; i++) {
        CHECK_OK(k[i].err);
        CHECK_EQ(k[i].rounds, k[i].done);
    }
    CHECK(w->open_most <= 5 && w->used_most <= 5);
    CHECK(w->opens > 5 && w->opens < 10 * k[0].rounds / 4); // the broken ones were replaced
    finish(w, p);
}

TEST(pool, who_waits_is_woken_by_a_release)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 1);
    for (int broken = 0; broken < 2; broken++) {
        test_thread thread[3];
        worker k[3];
        item *it;
        CHECK_OK(take(w, p, &it, 0));
        for (int i = 0; i < 3; i++) worker_start(&thread[i], &k[i], w, p, work);
        test_sleep_ms(20); // so that they do wait; it holds either way
        give(w, p, it, broken != 0);
        for (int i = 0; i < 3; i++) test_thread_join(&thread[i]);
        for (int i = 0; i < 3; i++) CHECK_OK(k[i].err);
    }
    CHECK_EQ(1, w->used_most);
    finish(w, p);
}

TEST(pool, opens_and_closes_without_holding_others_up)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 2);
    test_thread thread;
    worker k;
    item *it;
    CHECK_OK(take(w, p, &it, 0));
    CHECK_OK(netio_pair(w->gate, NETIO_STREAM));

    worker_start(&thread, &k, w, p, take_one);
    someone_at_gate(w); // inside open now, and stays there
    for (int i = 0; i < 10; i++) {
        give(w, p, it, false);
        CHECK_OK(take(w, p, &it, 0));
    }
    give(w, p, it, false);
    open_gate(w);
    test_thread_join(&thread);
    CHECK_OK(k.err);
    CHECK(k.got != it); // the other one stayed ours

    give(w, p, k.got, false);
    netio_close(&w->gate[0]);
    netio_close(&w->gate[1]);
    finish(w, p);
}

TEST(pool, a_slow_close_does_not_age_the_others)
{
    workshop *w = workshop_new();
    netio_pool_opts o = opts_of(w, 2);
    netio_pool *p;
    test_thread thread;
    worker k;
    item *old, *young;
    o.idle_ms = 300;
    CHECK_OK(netio_pool_create(&p, &o));
    CHECK_OK(take(w, p, &old, 0));
    CHECK_OK(take(w, p, &young, 0));
    give(w, p, old, false);
    test_sleep_ms(305);
    CHECK_OK(netio_pair(w->gate, NETIO_STREAM));
    worker_start(&thread, &k, w, p, take_one);
    someone_at_gate(w); // closing the old one
    test_sleep_ms(5);
    give(w, p, young, false);
    open_gate(w);
    test_thread_join(&thread);
    CHECK_OK(k.err);
    CHECK(k.got == young && !old->open);
    netio_close(&w->gate[0]);
    netio_close(&w->gate[1]);
    give(w, p, young, false);
    finish(w, p);
}

TEST(pool, a_failed_open_lets_the_next_one_try)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 1);
    test_thread thread[2];
    worker k[2];
    CHECK_OK(netio_pair(w->gate, NETIO_STREAM));
    w->fail = NETIO_ECONNREFUSED;
    worker_start(&thread[0], &k[0], w, p, take_one);
    someone_at_gate(w);
    worker_start(&thread[1], &k[1], w, p, take_one); // there is no room until the first has failed
    open_gate(w);
    someone_at_gate(w);
    locked();
    w->fail = 0;
    unlocked();
    open_gate(w);
    for (int i = 0; i < 2; i++) test_thread_join(&thread[i]);
    CHECK_ERR(NETIO_ECONNREFUSED, k[0].err);
    CHECK_OK(k[1].err);
    CHECK(k[1].took_ms < 15000); // not by its time-out
    netio_close(&w->gate[0]);
    netio_close(&w->gate[1]);
    give(w, p, k[1].got, false);
    finish(w, p);
}

TEST(pool, waiting_for_a_place_uses_up_the_time_of_open)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 1);
    test_thread thread;
    worker k;
    item *it;
    CHECK_OK(take(w, p, &it, 0));
    worker_start(&thread, &k, w, p, take_one);
    test_sleep_ms(50);
    give(w, p, it, true);
    test_thread_join(&thread);
    CHECK_OK(k.err);
    CHECK_BETWEEN(1, 20000, w->timeout_ms);
    if (k.took_ms > 25) CHECK(w->timeout_ms <= 19980); // it had begun to wait before
    give(w, p, k.got, false);
    finish(w, p);
}

TEST(pool, destroyed_under_those_who_wait)
{
    workshop *w = workshop_new();
    netio_pool *p = pool_of(w, 1);
    test_thread thread[4];
    worker k[4];
    item *it;
    CHECK_OK(take(w, p, &it, 0)); // keeps the pool alive, so that late threads may still enter
    for (int i = 0; i < 4; i++) worker_start(&thread[i], &k[i], w, p, take_one);
    test_sleep_ms(20);
    netio_pool_destroy(p);
    for (int i = 0; i < 4; i++) test_thread_join(&thread[i]);
    for (int i = 0; i < 4; i++) {
        CHECK_ERR(NETIO_ECANCELED, k[i].err);
        CHECK(k[i].took_ms < 15000);
    }
    give(w, p, it, false);
    CHECK_EQ(1, w->closes);
    CHECK_EQ(0, w->wrong);
}

static void give_back(void *arg)
{
    worker *k = (worker *)arg;
    give(k->w, k->p, k->got, false);
}

TEST(pool, destroyed_while_threads_give_back)
{
    for (int round = 0; round < 20; round++) {
        workshop *w = workshop_new();
        netio_pool *p = pool_of(w, 4);
        test_thread thread[4];
        worker k[4];
        for (int i = 0; i < 4; i++) {
            memset(&k[i], 0, sizeof k[i]);
            k[i].w = w;
            k[i].p = p;
            CHECK_OK(take(w, p, &k[i].got, 0));
        }
        for (int i = 0; i < 4; i++) test_thread_start(&thread[i], give_back, &k[i]);
        netio_pool_destroy(p); // anywhere among them
        for (int i = 0; i < 4; i++) test_thread_join(&thread[i]);
        CHECK_EQ(4, w->closes);
        CHECK_EQ(0, w->wrong);
    }
}

// clang-format off
TEST_MAIN("pool",
    T(pool, opens_when_asked_and_keeps_what_comes_back),
    T(pool, an_exhausted_one_is_busy_or_times_out),
    T(pool, ten_is_the_usual_most),
    T(pool, a_broken_one_is_closed_and_makes_room),
    T(pool, hands_on_why_it_could_not_open),
    T(pool, open_gets_the_time_of_acquire),
    T(pool, the_check_replaces_what_broke_while_idle),
    T(pool, shrinks_while_the_server_is_down_and_recovers),
    T(pool, a_slow_check_uses_up_the_time),
    T(pool, without_a_check_all_are_good),
    T(pool, checks_and_closes_what_was_idle_for_long),
    T(pool, destroyed_while_some_are_out),
    T(pool, refuses_senseless_options),
    T(pool, survives_failed_allocations),
    T(pool, callbacks_may_use_it),
    T(pool, ten_workers_share_five),
    T(pool, who_waits_is_woken_by_a_release),
    T(pool, opens_and_closes_without_holding_others_up),
    T(pool, a_slow_close_does_not_age_the_others),
    T(pool, a_failed_open_lets_the_next_one_try),
    T(pool, waiting_for_a_place_uses_up_the_time_of_open),
    T(pool, destroyed_under_those_who_wait),
    T(pool, destroyed_while_threads_give_back))
// clang-format on
#else
TEST(pool, is_left_out) { SKIP("built without threads"); }
// clang-format off
TEST_MAIN("pool", T(pool, is_left_out))
// clang-format on
#endif
