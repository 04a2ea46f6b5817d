// BACKENDS: all memory
//
// Calls from inside callbacks: every action from within every callback, on the connection itself,
// on its neighbour in the same batch, on its peer, on the loop. And handles that have gone stale.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "engine.h"

#include <signal.h>

//================================================================================================
// Callback by action
//================================================================================================

// Where the action is done. The first ones are callbacks of a connection.
// clang-format off
enum { IN_OPEN, IN_DATA, IN_DRAIN, IN_EOF, IN_TIMEOUT, IN_STOP, IN_SECURE, IN_CLOSE, IN_TIMER,
       IN_POST, IN_RELEASE, IN_ACCEPT, IN_REFUSED, PLACES };
// clang-format on
static const char *const places[PLACES] = {
    "on_open",  "on_data", "on_drain", "on_eof",  "on_timeout", "on_stop",   "on_secure",
    "on_close", "timer",   "post",     "release", "on_accept",  "on_refused"};
static const char events[] = {OPENED, DATA, DRAINED, ENDED, TIMED_OUT, STOPPED, SECURED, CLOSED};

enum { SERVED = 12 };

typedef struct arena {
    netio_loop *loop;
    netio_listener listener, second;
    char addr[NETIO_ADDR_TEXT];
    end x, n; // who acts, its neighbour
    end fresh[4];
    int dialed;
    pool p;
    end served[SERVED]; // the peer of n, then that of x
    netio_timer timer;
    int ticks;
    netio_socket detached;
    int place;
    const struct action *action;
    bool armed, acted;
    int result;
} arena;

typedef struct action {
    const char *name;
    int (*run)(arena *a);
    bool self;   // on x itself: NETIO_ESTALE from its on_close
    int also[3]; // errors that are right, too
} action;

static end *peer_of_x(arena *a) { return a->p.used > 1 ? &a->served[1] : NULL; }

static int dial_fresh(arena *a)
{
    netio_dial_opts opts;
    if (a->dialed == 4) return 0;
    end *e = &a->fresh[a->dialed];
    memset(&opts, 0, sizeof opts);
    opts.conn.user = e;
    int err = CALL(netio_conn_dial(&e->c, a->loop, a->addr, &end_all, &opts));
    if (err == 0) a->dialed++;
    return err;
}

static void tick(void *user) { ((arena *)user)->ticks++; }
static void nothing(void *user) { (void)user; }
static void abort_it(void *user, netio_conn c) { (void)user, netio_conn_abort(c); }
static void look_at_it(void *user, netio_conn c) { (void)user, (void)netio_conn_id(c); }

static int do_close(arena *a) { return CALL(netio_conn_close(a->x.c)); }
static int do_abort(arena *a) { return CALL(netio_conn_abort(a->x.c)); }
static int do_shutdown(arena *a) { return CALL(netio_conn_shutdown(a->x.c)); }
static int do_write(arena *a) { return CALL(netio_conn_write(a->x.c, "written", 7)); }
static int do_write_large(arena *a)
{
    static char large[300000];
    return CALL(netio_conn_write(a->x.c, large, sizeof large));
}
static int do_write_owned(arena *a)
{
    return CALL(netio_conn_write_owned(a->x.c, "owned", 5, nothing, NULL));
}
static int do_write_close(arena *a)
{
    int err = CALL(netio_conn_write(a->x.c, "last", 4));
    return err < 0 ? err : CALL(netio_conn_close(a->x.c));
}
static int do_close_abort(arena *a)
{
    int err = CALL(netio_conn_close(a->x.c));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_abort(a->x.c)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_close(a->x.c)));
    return err;
}
static int do_flush(arena *a) { return CALL(netio_conn_flush(a->x.c)); }
static int do_pause(arena *a) { return CALL(netio_conn_pause(a->x.c)); }
static int do_resume(arena *a) { return CALL(netio_conn_resume(a->x.c)); }
static int do_pause_resume(arena *a)
{
    int err = CALL(netio_conn_pause(a->x.c));
    return err < 0 ? err : CALL(netio_conn_resume(a->x.c));
}
static int do_handler(arena *a) { return CALL(netio_conn_set_handler(a->x.c, &end_plain)); }
static int do_timeout(arena *a)
{
    return CALL(netio_conn_set_timeout(a->x.c, NETIO_TIMEOUT_IDLE, 100));
}
static int do_rate(arena *a) { return CALL(netio_conn_set_rate(a->x.c, 100000, 100000)); }
static int do_marks(arena *a) { return CALL(netio_conn_set_marks(a->x.c, 1 << 20, 1, 1 << 21)); }
static int do_detach(arena *a)
{
    char unread[16];
    return (int)netio_conn_detach(a->x.c, &a->detached, unread, sizeof unread);
}
static const netio_filter_ops added_ops = {.name = "added"};
static int do_add_filter(arena *a)
{
    netio_filter f = {&added_ops, NULL};
    return CALL(netio_conn_add_filter(a->x.c, f));
}
static int do_relay(arena *a) { return CALL(netio_conn_relay(a->x.c, a->n.c)); }
static int do_close_neighbour(arena *a) { return CALL(netio_conn_close(a->n.c)); }
static int do_abort_neighbour(arena *a) { return CALL(netio_conn_abort(a->n.c)); }
static int do_write_neighbour(arena *a) { return CALL(netio_conn_write(a->n.c, "n", 1)); }
static int do_pause_neighbour(arena *a) { return CALL(netio_conn_pause(a->n.c)); }
static int do_detach_neighbour(arena *a)
{
    char unread[16];
    return (int)netio_conn_detach(a->n.c, &a->detached, unread, sizeof unread);
}
static int do_close_peer(arena *a)
{
    return peer_of_x(a) ? CALL(netio_conn_close(peer_of_x(a)->c)) : 0;
}
static int do_abort_peer(arena *a)
{
    return peer_of_x(a) ? CALL(netio_conn_abort(peer_of_x(a)->c)) : 0;
}
static int do_dial(arena *a) { return dial_fresh(a); }
static int do_dial_and_abort(arena *a)
{
    int err = dial_fresh(a);
    return err < 0 ? err : CALL(netio_conn_abort(a->fresh[a->dialed - 1].c));
}
static int do_listener_close(arena *a)
{
    netio_listener_close(a->listener);
    return CALL(netio_listener_pause(a->listener)) == NETIO_ESTALE ? 0 : NETIO_EIO;
}
static int do_listener_pause(arena *a) { return CALL(netio_listener_pause(a->listener)); }
static int do_listener_open(arena *a)
{
    netio_listener_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.conn.user = &a->p;
    return CALL(netio_listener_open(&a->second, a->loop, test_loop_addr(), &end_all, &opts));
}
static int do_timer_stop(arena *a)
{
    netio_timer_stop(a->timer);
    return CALL(netio_timer_reset(a->timer, 1)) == NETIO_ESTALE ? 0 : NETIO_EIO;
}
static int do_timer_start(arena *a) { return CALL(netio_timer_once(NULL, a->loop, -1, tick, a)); }
static int do_post(arena *a) { return CALL(netio_loop_post(a->loop, tick, NULL, a, 0)); }
static int do_stop(arena *a)
{
    netio_loop_stop(a->loop);
    return 0;
}
static int do_finish(arena *a)
{
    netio_loop_finish(a->loop, 10);
    return 0;
}
static int do_finish_twice(arena *a)
{
    netio_loop_finish(a->loop, 10);
    netio_loop_finish(a->loop, 10);
    return 0;
}
static int do_destroy(arena *a)
{
    return CALL(netio_loop_destroy(a->loop)) == NETIO_EBUSY ? 0 : NETIO_EIO;
}
static int do_run(arena *a) { return CALL(netio_loop_run(a->loop)) == NETIO_EBUSY ? 0 : NETIO_EIO; }
static int do_run_once(arena *a)
{
    return CALL(netio_loop_run_once(a->loop, 0)) == NETIO_EBUSY ? 0 : NETIO_EIO;
}
static int do_abort_all(arena *a)
{
    netio_conn_each(a->loop, abort_it, a);
    return 0;
}
static int do_look_at_all(arena *a)
{
    netio_stats s;
    netio_conn_each(a->loop, look_at_it, a);
    netio_loop_stats(a->loop, &s);
    return netio_loop_next_timeout(a->loop) >= -1 ? 0 : NETIO_EIO;
}

static const action actions[] = {
    {"close", do_close, true, {0}},
    {"abort", do_abort, true, {0}},
    {"shutdown", do_shutdown, true, {0}},
    {"write", do_write, true, {NETIO_ENOBUFS}},
    {"write_large", do_write_large, true, {NETIO_ENOBUFS}},
    {"write_owned", do_write_owned, true, {NETIO_ENOBUFS}},
    {"write_close", do_write_close, true, {NETIO_ENOBUFS}},
    {"close_abort", do_close_abort, true, {0}},
    {"flush", do_flush, true, {0}},
    {"pause", do_pause, true, {0}},
    {"resume", do_resume, true, {0}},
    {"pause_resume", do_pause_resume, true, {0}},
    {"set_handler", do_handler, true, {0}},
    {"set_timeout", do_timeout, true, {0}},
    {"set_rate", do_rate, true, {0}},
    {"set_marks", do_marks, true, {0}},
    {"detach", do_detach, true, {NETIO_EBUSY, NETIO_ENOTSUP}},
    {"add_filter", do_add_filter, true, {0}},
    {"relay", do_relay, true, {NETIO_EBUSY}},
    {"close_neighbour", do_close_neighbour, false, {0}},
    {"abort_neighbour", do_abort_neighbour, false, {0}},
    {"write_neighbour", do_write_neighbour, false, {0}},
    {"pause_neighbour", do_pause_neighbour, false, {0}},
    {"detach_neighbour", do_detach_neighbour, false, {NETIO_EBUSY, NETIO_ENOTSUP}},
    {"close_peer", do_close_peer, false, {NETIO_ESTALE}},
    {"abort_peer", do_abort_peer, false, {NETIO_ESTALE}},
    {"dial", do_dial, false, {NETIO_ECANCELED}}, // after finish
    {"dial_and_abort", do_dial_and_abort, false, {NETIO_ECANCELED}},
    {"listener_close", do_listener_close, false, {0}},
    {"listener_pause", do_listener_pause, false, {NETIO_ESTALE}}, // finish has closed it
    {"listener_open", do_listener_open, false, {NETIO_ECANCELED}},
    {"timer_stop", do_timer_stop, false, {0}},
    {"timer_start", do_timer_start, false, {0}},
    {"post", do_post, false, {0}},
    {"stop", do_stop, false, {0}},
    {"finish", do_finish, false, {0}},
    {"finish_twice", do_finish_twice, false, {0}},
    {"destroy", do_destroy, false, {0}},
    {"run", do_run, false, {0}},
    {"run_once", do_run_once, false, {0}},
    {"abort_all", do_abort_all, false, {0}},
    {"look_at_all", do_look_at_all, false, {0}},
};

static void act(arena *a)
{
    if (!a->armed || a->acted) return;
    a->acted = true;
    a->result = a->action->run(a);
}

static void act_in_callback(end *e, int what, const void *data, size_t len)
{
    arena *a = (arena *)e->arg;
    (void)data, (void)len;
    if (a->place <= IN_CLOSE && what == events[a->place]) act(a);
}

static void act_in_task(void *user) { act((arena *)user); }

static bool act_in_accept(void *user, const netio_addr *peer)
{
    pool *p = (pool *)user;
    arena *a = (arena *)p->like.arg;
    CHECK(peer != NULL);
    if (a->place == IN_ACCEPT) act(a);
    return true;
}

static void act_in_refused(void *user, const netio_addr *peer, const netio_error *why)
{
    pool *p = (pool *)user;
    arena *a = (arena *)p->like.arg;
    CHECK(peer != NULL && why->err < 0);
    if (a->place == IN_REFUSED) act(a);
}

static const netio_filter_ops no_ops = {.name = "none"};

static void dial_one(arena *a, end *e)
{
    netio_dial_opts opts;
    netio_setting small[2] = {{NETIO_OPT_SNDBUF, 16384, NULL}, {NETIO_OPT_RCVBUF, 16384, NULL}};
    memset(&opts, 0, sizeof opts);
    opts.conn.user = e;
    opts.conn.high_mark = 1000;
    opts.conn.low_mark = 500;
    opts.socket.settings = small;
    opts.socket.setting_count = test_in_memory() ? 0 : 2;
    CHECK_OK(CALL(netio_conn_dial(&e->c, a->loop, a->addr, &end_all, &opts)));
}

static void provoke(arena *a)
{
    static char much[200000];
    end *y = peer_of_x(a);
    switch (a->place) {
    case IN_DATA:
        CHECK_OK(CALL(netio_conn_write(a->served[0].c, "to n", 4))); // in the same batch
        CHECK_OK(CALL(netio_conn_write(y->c, "to x", 4)));
        break;
    case IN_DRAIN: CHECK_OK(CALL(netio_conn_write(a->x.c, much, sizeof much))); break;
    case IN_EOF: CHECK_OK(CALL(netio_conn_shutdown(y->c))); break;
    case IN_TIMEOUT: CHECK_OK(CALL(netio_conn_set_timeout(a->x.c, NETIO_TIMEOUT_IDLE, 2))); break;
    case IN_STOP: netio_loop_finish(a->loop, 50); break;
    case IN_CLOSE: // Wine does not show a reset
        CHECK_OK(CALL(netio_conn_abort(test_under("wine") ? a->x.c : y->c)));
        break;
    case IN_TIMER: CHECK_OK(netio_timer_once(NULL, a->loop, 0, act_in_task, a)); break;
    case IN_POST: CHECK_OK(netio_loop_post(a->loop, act_in_task, NULL, a, 0)); break;
    case IN_RELEASE:
        CHECK_OK(CALL(netio_conn_write_owned(a->x.c, "owned", 5, act_in_task, a)));
        break;
    case IN_SECURE: {
        netio_filter f = {&no_ops, NULL};
        CHECK_OK(CALL(netio_conn_add_filter(a->x.c, f)));
        break;
    }
    case IN_ACCEPT:
    case IN_REFUSED: CHECK_OK(dial_fresh(a)); break;
    default: break;
    }
}

static bool expected(const arena *a)
{
    int r = a->result;
    if (a->place == IN_CLOSE && a->action->self) return r == NETIO_ESTALE;
    for (int i = 0; i < 3; i++)
        if (a->action->also[i] && r == a->action->also[i]) return true;
    return r >= 0;
}

static void arena_run(int place, const action *what)
{
    static arena a;
    netio_listener_opts listen;
    netio_addr addr;
    memset(&a, 0, sizeof a);
    memset(&listen, 0, sizeof listen);
    a.place = place;
    a.action = what;
    a.detached = NETIO_INVALID_SOCKET;
    a.x.arg = a.n.arg = a.p.like.arg = &a;
    a.x.on = act_in_callback;
    a.p.kind = KIND_POOL;
    a.p.ends = a.served;
    a.p.cap = SERVED;
    CHECK_OK(test_loop_create(&a.loop, NULL));
    if (test_in_memory()) {
        netio_link link = {0};
        link.window = 16384;
        test_link(&link);
    }
    listen.conn.user = &a.p;
    listen.on_accept = act_in_accept;
    listen.on_refused = act_in_refused;
    if (place == IN_REFUSED) listen.conn_max = 2;
    CHECK_OK(netio_listener_open(&a.listener, a.loop, test_loop_addr(), &end_all, &listen));
    CHECK_OK(netio_listener_addr(a.listener, &addr));
    CHECK(netio_addr_format(&addr, a.addr, sizeof a.addr) > 0);
    CHECK_OK(netio_timer_once(&a.timer, a.loop, 60000, tick, &a));

    dial_one(&a, &a.n);
    RUN_UNTIL(a.loop, a.n.opened && a.p.used == 1);
    a.armed = place == IN_OPEN;
    dial_one(&a, &a.x);
    if (place != IN_OPEN) {
        RUN_UNTIL(a.loop, a.x.opened && a.p.used == 2);
        a.armed = true;
        provoke(&a);
    }
    RUN_UNTIL(a.loop, a.acted);
    for (int i = 0; i < 4; i++) CHECK(netio_loop_run_once(a.loop, 1) >= 0);
    if (!expected(&a))
        test_fail(__FILE__, __LINE__, "%s in %s: %s", what->name, places[place],
                  netio_errname(a.result));
    if (a.detached != NETIO_INVALID_SOCKET) CHECK_OK(netio_close(&a.detached));
    test_loop_destroy(&a.loop);

    end *all[2 + 4 + SERVED];
    size_t count = 0;
    all[count++] = &a.x;
    all[count++] = &a.n;
    for (int i = 0; i < a.dialed; i++) all[count++] = &a.fresh[i];
    for (size_t i = 0; i < a.p.used; i++) all[count++] = &a.served[i];
    for (size_t i = 0; i < count; i++) {
        if (all[i]->closed != 1 || all[i]->broken)
            printf("    %s in %s: end %d: %s\n", what->name, places[place], (int)i, all[i]->log);
        CHECK_EQ(1, all[i]->closed);
        end_check(all[i]);
    }
}

static void all_actions(int place)
{
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) arena_run(place, &actions[i]);
}

TEST(conn_calls, any_in_on_open) { all_actions(IN_OPEN); }
TEST(conn_calls, any_in_on_data) { all_actions(IN_DATA); }
TEST(conn_calls, any_in_on_drain) { all_actions(IN_DRAIN); }
TEST(conn_calls, any_in_on_eof) { all_actions(IN_EOF); }
TEST(conn_calls, any_in_on_timeout) { all_actions(IN_TIMEOUT); }
TEST(conn_calls, any_in_on_stop) { all_actions(IN_STOP); }
TEST(conn_calls, any_in_on_secure) { all_actions(IN_SECURE); }
TEST(conn_calls, any_in_on_close) { all_actions(IN_CLOSE); }
TEST(conn_calls, any_in_timer) { all_actions(IN_TIMER); }
TEST(conn_calls, any_in_post) { all_actions(IN_POST); }
TEST(conn_calls, any_in_release) { all_actions(IN_RELEASE); }
TEST(conn_calls, any_in_on_accept) { all_actions(IN_ACCEPT); }
TEST(conn_calls, any_in_on_refused) { all_actions(IN_REFUSED); }

//================================================================================================
// Many in one batch
//================================================================================================

enum { CROWD = 8 };

typedef struct crowd {
    duo d;
    pool p;
    end ends[CROWD], served[CROWD + 1];
    netio_socket detached[CROWD];
    int how;  // what the first does to the others
    int seen; // callbacks with data
} crowd;

static void crowd_open(crowd *w)
{
    w->p.kind = KIND_POOL;
    w->p.ends = w->served;
    w->p.cap = CROWD + 1;
    duo_init(&w->d);
    w->d.listen.conn.user = &w->p;
    duo_start(&w->d, &end_all, &end_all);
    for (int i = 0; i < CROWD; i++) duo_dial(&w->d, &w->ends[i], &end_all);
    RUN_UNTIL(w->d.loop, w->p.used == CROWD + 1);
    for (int i = 0; i < CROWD; i++) RUN_UNTIL(w->d.loop, w->ends[i].opened);
}

// All of them have something to read in the next turn.
static void crowd_write(crowd *w)
{
    for (size_t i = 0; i < w->p.used; i++) {
        CHECK_OK(CALL(netio_conn_write(w->served[i].c, "to all", 6)));
        CHECK_OK(CALL(netio_conn_flush(w->served[i].c)));
    }
}

static void crowd_close(crowd *w)
{
    duo_close(&w->d);
    for (int i = 0; i < CROWD; i++) {
        CHECK_EQ(1, w->ends[i].closed);
        end_check(&w->ends[i]);
    }
    for (size_t i = 0; i < w->p.used; i++) CHECK_EQ(1, w->served[i].closed);
}

static void first_strikes(end *e, int what, const void *data, size_t len)
{
    crowd *w = (crowd *)e->arg;
    (void)data, (void)len;
    if (what != DATA || w->seen++ > 0) return;
    for (int i = 0; i < CROWD; i++) {
        end *o = &w->ends[i];
        if (o == e) continue;
        switch (w->how) {
        case 0: CHECK_OK(CALL(netio_conn_close(o->c))); break;
        case 1: CHECK_OK(CALL(netio_conn_abort(o->c))); break;
        case 2: CHECK_OK(CALL(netio_conn_pause(o->c))); break;
        case 3: CHECK_OK(CALL(netio_conn_set_handler(o->c, &end_plain))); break;
        case 4: CHECK_ERR(0, netio_conn_detach(o->c, &w->detached[i], NULL, 0)); break;
        default: CHECK_OK(CALL(netio_conn_shutdown(o->c))); break;
        }
    }
}

TEST(conn_calls, first_of_a_batch_ends_the_others)
{
    for (int how = 0; how < 6; how++) {
        static crowd w;
        if (how == 4 && test_in_memory()) continue;
        memset(&w, 0, sizeof w);
        w.how = how;
        crowd_open(&w);
        for (int i = 0; i < CROWD; i++) {
            w.ends[i].on = first_strikes;
            w.ends[i].arg = &w;
        }
        crowd_write(&w);
        RUN_UNTIL(w.d.loop, w.seen > 0);
        test_run_for(w.d.loop, 20);
        int data = 0;
        for (int i = 0; i < CROWD; i++) data += strchr(w.ends[i].log, DATA) != NULL;
        CHECK_EQ(how == 3 || how == 5 ? CROWD : 1, data); // those live on
        if (how == 2)
            for (int i = 0; i < CROWD; i++) {
                CHECK_OK(CALL(netio_conn_resume(w.ends[i].c)));
                RUN_UNTIL(w.d.loop, w.ends[i].got == 6);
            }
        if (how == 4)
            for (int i = 0; i < CROWD; i++) {
                char buf[6];
                if (w.ends[i].got) continue;
                CHECK_OK(netio_recv_exact(w.detached[i], buf, 6, NULL, 5000)); // nothing is lost
                CHECK_MEM("to all", buf, 6);
                CHECK_OK(netio_close(&w.detached[i]));
            }
        crowd_close(&w);
    }
}

static struct {
    netio_loop *loop;
    int posts, ticks;
} stopper;

static void post_again(void *user)
{
    (void)user;
    if (++stopper.posts == 20) netio_loop_stop(stopper.loop);
    if (stopper.posts < 30) // else no virtual time would ever pass
        CHECK_OK(netio_loop_post(stopper.loop, post_again, NULL, NULL, 0));
}

static void stop_at_three(void *user)
{
    (void)user;
    if (++stopper.ticks == 3) netio_loop_stop(stopper.loop);
}

// Nothing of a later turn runs any more; the next run goes on where this one ended.
TEST(conn_calls, stop_ends_run_with_its_turn)
{
    static crowd w;
    netio_timer t;
    memset(&w, 0, sizeof w);
    memset(&stopper, 0, sizeof stopper);
    crowd_open(&w);
    stopper.loop = w.d.loop;
    CHECK_OK(netio_timer_every(&t, w.d.loop, 2, stop_at_three, NULL));
    CHECK_OK(netio_loop_run(w.d.loop));
    CHECK_EQ(3, stopper.ticks);
    netio_timer_stop(t);

    post_again(NULL); // something runs in every turn
    CHECK_OK(netio_loop_run(w.d.loop));
    int posts = stopper.posts;
    CHECK_EQ(20, posts);
    netio_loop_stop(w.d.loop); // before run: that one ends at once, or with its first turn
    CHECK_OK(netio_loop_run(w.d.loop));
    CHECK_BETWEEN(posts, posts + 1, stopper.posts);
    crowd_write(&w);
    for (int i = 0; i < CROWD; i++) RUN_UNTIL(w.d.loop, w.ends[i].got == 6);
    crowd_close(&w);
}

// A connection made in a callback is not called in the same breath, and each callback may make one.
static struct {
    int count;
    end ends[30];
    duo *d;
} chain;

static void dial_next(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what != OPENED && what != CLOSED) return;
    if (what == OPENED) CHECK_OK(CALL(netio_conn_close(e->c)));
    if (what == CLOSED && chain.count < 30) {
        end *next = &chain.ends[chain.count++];
        next->on = dial_next;
        duo_dial(chain.d, next, &end_plain);
    }
}

TEST(conn_calls, each_end_may_dial_the_next)
{
    static end served[40];
    duo d;
    pool p;
    memset(&chain, 0, sizeof chain);
    memset(&p, 0, sizeof p);
    p.kind = KIND_POOL;
    p.ends = served;
    p.cap = 40;
    duo_init(&d);
    d.listen.conn.user = &p;
    d.a.on = dial_next;
    chain.d = &d;
    duo_start(&d, &end_plain, &end_plain);
    RUN_UNTIL(d.loop, chain.count == 30 && chain.ends[29].closed);
    duo_close(&d);
    for (int i = 0; i < 30; i++) CHECK_STR("oc", chain.ends[i].log);
    CHECK_EQ(31, p.used);
}

//================================================================================================
// Stale handles
//================================================================================================

static void release_never(void *user)
{
    (void)user;
    test_fail(__FILE__, __LINE__, "released, though it was not taken");
}

static const netio_filter_ops plain_filter = {.name = "plain"};

// Every call on a connection that has ended says so and does nothing, whoever has its place now.
static void stale_conn(netio_conn c, netio_conn live, netio_file file, bool closed)
{
    netio_buf buf = {"x", 1};
    netio_addr addr;
    netio_error error;
    netio_stats stats;
    netio_socket s;
    netio_filter filter = {&plain_filter, NULL};
    int other = 0;
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_write(c, "x", 1)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_writev(c, &buf, 1)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_write_owned(c, "x", 1, release_never, NULL)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_write_file(c, file, 0, 1, release_never, NULL)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_flush(c)));
    CHECK_EQ(0, netio_conn_pending(c));
    CHECK(!netio_conn_congested(c));
    CHECK(CALL(netio_conn_unread(c, 1)) < 0);
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_pause(c)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_resume(c)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_shutdown(c)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_close(c)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_abort(c)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_set_handler(c, &end_all)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_set_timeout(c, NETIO_TIMEOUT_IDLE, 1)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_set_rate(c, 1, 1)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_set_marks(c, 1, 1, 1)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_add_filter(c, filter)));
    CHECK_ERR(NETIO_ESTALE, netio_conn_detach(c, &s, NULL, 0));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_relay(c, live)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_relay(live, c)));
    CHECK(netio_conn_filter(c, &plain_filter) == NULL);
    CHECK(!netio_conn_alive(c));
    CHECK(!netio_conn_same(c, live));
    if (!closed) return; // the rest also works in on_close
    CHECK_ERR(NETIO_ESTALE, netio_conn_socket(c, &s));
    CHECK(netio_conn_user(c) == NULL);
    netio_conn_set_user(c, &other);
    CHECK(netio_conn_loop(c) == NULL);
    CHECK_ERR(NETIO_ESTALE, netio_conn_peer(c, &addr));
    CHECK_ERR(NETIO_ESTALE, netio_conn_local(c, &addr));
    CHECK_STR("", netio_conn_server_name(c));
    CHECK_ERR(NETIO_ESTALE, netio_conn_stats(c, &stats));
    CHECK_ERR(NETIO_ESTALE, netio_conn_error(c, &error));
    CHECK_EQ(0, netio_conn_attempts(c, &error, 1));
}

TEST(conn_calls, stale_connection_after_reuse)
{
    duo d;
    netio_conn old, zero;
    netio_file file;
    end e;
    bool reused = false;
    FILE *f = stream_file("stale", 10, 1, &file);
    memset(&zero, 0, sizeof zero);
    duo_init(&d);
    duo_open(&d, &end_all, &end_plain);
    old = d.a.c;
    stale_conn(zero, d.a.c, file, true);
    CHECK_OK(CALL(netio_conn_abort(d.a.c)));
    stale_conn(old, d.b.c, file, false); // at once
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    stale_conn(old, zero, file, true); // after on_close
    for (int i = 0; i < 300 && !reused; i++) {
        memset(&e, 0, sizeof e);
        memset(&d.b, 0, sizeof d.b);
        duo_dial(&d, &e, &end_all);
        RUN_UNTIL(d.loop, e.opened && d.b.opened);
        reused = e.c.ptr == old.ptr || d.b.c.ptr == old.ptr;
        stale_conn(old, e.c, file, true); // its place has another tenant
        CHECK(netio_conn_user(e.c) == &e);
        CHECK_OK(CALL(netio_conn_write(e.c, "still here", 10)));
        RUN_UNTIL(d.loop, d.b.got == 10);
        CHECK_OK(CALL(netio_conn_close(e.c)));
        stale_conn(e.c, d.b.c, file, false); // while it closes
        RUN_UNTIL(d.loop, e.closed && d.b.closed);
        CHECK_ERR(0, e.err);
    }
    CHECK(reused); // or this test has shown little
    duo_close(&d);
    fclose(f);
}

TEST(conn_calls, stale_listener_after_reuse)
{
    netio_loop *loop;
    netio_listener l, old, zero;
    netio_addr addr;
    netio_stats stats;
    netio_socket s;
    netio_filter filter = {&plain_filter, NULL};
    bool reused = false;
    memset(&zero, 0, sizeof zero);
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(netio_listener_open(&old, loop, test_loop_addr(), &end_plain, NULL));
    netio_listener_close(old);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    for (int i = 0; i < 100 && !reused; i++) {
        CHECK_OK(netio_listener_open(&l, loop, test_loop_addr(), &end_plain, NULL));
        reused = l.ptr == old.ptr;
        for (int k = 0; k < 2; k++) {
            netio_listener x = k ? zero : old;
            CHECK_ERR(NETIO_ESTALE, netio_listener_pause(x));
            CHECK_ERR(NETIO_ESTALE, netio_listener_resume(x));
            CHECK_ERR(NETIO_ESTALE, netio_listener_addr(x, &addr));
            CHECK_ERR(NETIO_ESTALE, netio_listener_socket(x, &s));
            CHECK_ERR(NETIO_ESTALE, netio_listener_stats(x, &stats));
            CHECK_ERR(NETIO_ESTALE, netio_listener_set_filter(x, filter));
            netio_listener_close(x);
        }
        CHECK_OK(netio_listener_addr(l, &addr)); // untouched
        netio_listener_close(l);
        CHECK(netio_loop_run_once(loop, 0) >= 0);
    }
    CHECK(reused);
    test_loop_destroy(&loop);
}

static void count(void *user) { ++*(int *)user; }

TEST(conn_calls, stale_timer_after_reuse)
{
    netio_loop *loop;
    netio_timer old, t, zero;
    int ran = 0, first = 0;
    memset(&zero, 0, sizeof zero);
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(netio_timer_once(&old, loop, 0, count, &first));
    RUN_UNTIL(loop, first == 1);
    CHECK_OK(netio_timer_once(&t, loop, 20, count, &ran));
    CHECK(t.ptr == old.ptr);
    CHECK_ERR(NETIO_ESTALE, netio_timer_reset(old, 0));
    CHECK_ERR(NETIO_ESTALE, netio_timer_reset(zero, 0));
    netio_timer_stop(old);
    netio_timer_stop(zero);
    RUN_UNTIL(loop, ran == 1);
    CHECK_ERR(NETIO_ESTALE, netio_timer_reset(t, 0));
    CHECK_OK(netio_timer_every(&old, loop, 1, count, &ran));
    RUN_UNTIL(loop, ran == 3);
    netio_timer_stop(old);
    CHECK_OK(netio_timer_once(&t, loop, 5, count, &first));
    netio_timer_stop(old);
    RUN_UNTIL(loop, first == 2);
    test_loop_destroy(&loop);
}

static void never_ready(void *user, unsigned ready) { (void)ready, ++*(int *)user; }

TEST(conn_calls, stale_watch_after_reuse)
{
    netio_loop *loop;
    netio_watch old, w, zero;
    netio_socket s[2], t[2];
    int ready = 0;
    memset(&zero, 0, sizeof zero);
    CHECK_OK(netio_pair(s, NETIO_STREAM));
    CHECK_OK(netio_pair(t, NETIO_STREAM));
    CHECK_OK(test_loop_create(&loop, NULL));
    if (test_in_memory()) {
        CHECK_ERR(NETIO_ENOTSUP,
                  netio_watch_start(&w, loop, s[0], NETIO_EV_READ, never_ready, &ready));
    } else {
        CHECK_OK(netio_watch_start(&old, loop, s[0], NETIO_EV_READ, never_ready, &ready));
        netio_watch_stop(old);
        CHECK(netio_loop_run_once(loop, 0) >= 0);
        CHECK_OK(netio_watch_start(&w, loop, t[0], NETIO_EV_READ, never_ready, &ready));
        CHECK(w.ptr == old.ptr);
        CHECK_ERR(NETIO_ESTALE, netio_watch_modify(old, NETIO_EV_WRITE));
        CHECK_ERR(NETIO_ESTALE, netio_watch_modify(zero, NETIO_EV_WRITE));
        netio_watch_stop(old);
        netio_watch_stop(zero);
        CHECK_ERR(1, netio_send(t[1], "x", 1, 1000));
        RUN_UNTIL(loop, ready > 0);
        netio_watch_stop(w);
    }
    test_loop_destroy(&loop);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(netio_close(&s[i]));
        CHECK_OK(netio_close(&t[i]));
    }
}

static struct {
    int done, err;
    size_t count;
} lookup;

static void looked_up(void *user, int err, const netio_addr *addrs, size_t n)
{
    (void)user, (void)addrs;
    lookup.done++;
    lookup.err = err;
    lookup.count = n;
}

TEST(conn_calls, stale_lookup_after_reuse)
{
    netio_loop *loop;
    netio_lookup old, q, zero;
    memset(&zero, 0, sizeof zero);
    memset(&lookup, 0, sizeof lookup);
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(CALL(netio_lookup_start(&old, loop, "127.0.0.1:80", NULL, -1, looked_up, NULL)));
    CHECK_EQ(0, lookup.done); // never before this returns
    netio_lookup_cancel(old);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_OK(CALL(netio_lookup_start(&q, loop, "127.0.0.1:80", NULL, -1, looked_up, NULL)));
    netio_lookup_cancel(old);
    netio_lookup_cancel(zero);
    RUN_UNTIL(loop, lookup.done == 1);
    CHECK_ERR(0, lookup.err);
    CHECK_EQ(1, lookup.count);
    netio_lookup_cancel(q);
    test_loop_destroy(&loop);
    CHECK_EQ(1, lookup.done);
}

TEST(conn_calls, stale_signal_after_reuse)
{
    netio_loop *loop;
    netio_signal old, s, zero;
    int seen = 0;
    memset(&zero, 0, sizeof zero);
    CHECK_OK(test_loop_create(&loop, NULL));
    int err = netio_signal_start(&old, loop, SIGTERM, count, &seen);
    if (err == NETIO_ENOTSUP && test_in_memory()) {
        test_loop_destroy(&loop);
        SKIP("no signals on a network in memory");
    }
    CHECK_OK(err);
    netio_signal_stop(old);
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_OK(netio_signal_start(&s, loop, SIGTERM, count, &seen));
    CHECK(s.ptr == old.ptr);
    netio_signal_stop(old);
    netio_signal_stop(zero);
    CHECK_ERR(NETIO_EEXIST, netio_signal_start(&old, loop, SIGTERM, count, &seen)); // it runs on
    netio_signal_stop(s);
    CHECK_OK(netio_signal_start(&old, loop, SIGTERM, count, &seen));
    test_loop_destroy(&loop);
    CHECK_EQ(0, seen);
}

static void udp_counted(netio_udp u, netio_datagram *msgs, size_t n)
{
    (void)msgs;
    *(size_t *)netio_udp_user(u) += n;
}

TEST(conn_calls, stale_udp_after_reuse)
{
    static const netio_udp_handler handler = {.on_datagrams = udp_counted};
    netio_loop *loop;
    netio_udp old, u, zero;
    netio_udp_opts opts;
    netio_addr addr;
    netio_stats stats;
    netio_socket s;
    netio_datagram m;
    size_t got = 0;
    bool reused = false;
    memset(&zero, 0, sizeof zero);
    memset(&opts, 0, sizeof opts);
    memset(&m, 0, sizeof m);
    opts.user = &got;
    m.data = (void *)(uintptr_t) "x";
    m.len = 1;
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(netio_udp_open(&old, loop, test_loop_addr(), &handler, &opts));
    netio_udp_close(old);
    for (int i = 0; i < 100 && !reused; i++) {
        CHECK(netio_loop_run_once(loop, 0) >= 0);
        CHECK_OK(netio_udp_open(&u, loop, test_loop_addr(), &handler, &opts));
        reused = u.ptr == old.ptr;
        CHECK_OK(netio_udp_addr(u, &addr));
        for (int k = 0; k < 2; k++) {
            netio_udp x = k ? zero : old;
            CHECK_ERR(NETIO_ESTALE, netio_udp_send(x, "x", 1, &addr));
            CHECK_ERR(NETIO_ESTALE, netio_udp_send_batch(x, &m, 1));
            CHECK_ERR(NETIO_ESTALE, netio_udp_pause(x));
            CHECK_ERR(NETIO_ESTALE, netio_udp_resume(x));
            CHECK(netio_udp_user(x) == NULL);
            CHECK(netio_udp_loop(x) == NULL);
            CHECK_ERR(NETIO_ESTALE, netio_udp_addr(x, &addr));
            CHECK_ERR(NETIO_ESTALE, netio_udp_socket(x, &s));
            CHECK_ERR(NETIO_ESTALE, netio_udp_stats(x, &stats));
            netio_udp_close(x);
        }
        CHECK_OK(netio_udp_send(u, "x", 1, &addr)); // to itself
        RUN_UNTIL(loop, got > 0);
        got = 0;
        netio_udp_close(u);
    }
    CHECK(reused);
    test_loop_destroy(&loop);
}

// What would make something new while the loop ends is refused.
static struct {
    int ran;
    netio_loop *loop;
} ending;

static void make_at_the_end(end *e, int what, const void *data, size_t len)
{
    netio_dial_opts opts;
    netio_conn c;
    netio_listener l;
    netio_timer t;
    netio_udp u;
    (void)data, (void)len;
    if (what != CLOSED || e->err != NETIO_ECANCELED) return;
    ending.ran++;
    memset(&opts, 0, sizeof opts);
    CHECK_ERR(NETIO_ECANCELED,
              CALL(netio_conn_dial(&c, ending.loop, "127.0.0.1:1", &end_plain, &opts)));
    CHECK_ERR(NETIO_ECANCELED,
              CALL(netio_listener_open(&l, ending.loop, test_loop_addr(), &end_plain, NULL)));
    CHECK_ERR(NETIO_ECANCELED, CALL(netio_timer_once(&t, ending.loop, 0, count, NULL)));
    CHECK_ERR(NETIO_ECANCELED, CALL(netio_udp_open(&u, ending.loop, NULL, NULL, NULL)));
    CHECK_ERR(NETIO_EBUSY, CALL(netio_loop_destroy(ending.loop)));
    CHECK_ERR(NETIO_EBUSY, CALL(netio_loop_run(ending.loop)));
    CHECK_ERR(NETIO_EBUSY, CALL(netio_loop_run_once(ending.loop, 0)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_write(e->c, "x", 1)));
}

TEST(conn_calls, nothing_new_while_the_loop_ends)
{
    duo d;
    memset(&ending, 0, sizeof ending);
    duo_init(&d);
    d.a.on = d.b.on = make_at_the_end;
    duo_open(&d, &end_all, &end_all);
    ending.loop = d.loop;
    duo_close(&d);
    CHECK_EQ(2, ending.ran);
}

//================================================================================================

// clang-format off
TEST_MAIN("conn_calls",
    T(conn_calls, any_in_on_open),
    T(conn_calls, any_in_on_data),
    T(conn_calls, any_in_on_drain),
    T(conn_calls, any_in_on_eof),
    T(conn_calls, any_in_on_timeout),
    T(conn_calls, any_in_on_stop),
    T(conn_calls, any_in_on_secure),
    T(conn_calls, any_in_on_close),
    T(conn_calls, any_in_timer),
    T(conn_calls, any_in_post),
    T(conn_calls, any_in_release),
    T(conn_calls, any_in_on_accept),
    T(conn_calls, any_in_on_refused),
    T(conn_calls, first_of_a_batch_ends_the_others),
    T(conn_calls, stop_ends_run_with_its_turn),
    T(conn_calls, each_end_may_dial_the_next),
    T(conn_calls, stale_connection_after_reuse),
    T(conn_calls, stale_listener_after_reuse),
    T(conn_calls, stale_timer_after_reuse),
    T(conn_calls, stale_watch_after_reuse),
    T(conn_calls, stale_lookup_after_reuse),
    T(conn_calls, stale_signal_after_reuse),
    T(conn_calls, stale_udp_after_reuse),
    T(conn_calls, nothing_new_while_the_loop_ends))
