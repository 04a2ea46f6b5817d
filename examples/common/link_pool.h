// A few connections for many users: links (see link.h) that are lent to one at a time and come
// back by themselves when they are lost. One file, on netio's loop. (For threads that wait in their
// calls there is netio_pool.)
//
//     link_pool_create(&p, loop, &handler, &opts);
//     link_pool_acquire(p, NULL, 2000, got, me);  // got(me, 0, l) when one is free
//     link_pool_release(p, l, false);
//
// It opens links when somebody waits, up to `max`, and lends the one that came back last. One that
// has been silent for check_ms must answer a ping first, and every link is pinged in silence, so a
// dead one is found and replaced whether it is used or not. While the servers are down nothing is
// lent, and the links come back at their own pace.
//
// A user who waits is called exactly once, from the loop, never from inside a call of its own, but
// for link_pool_destroy. Any call is legal in the callbacks. A pool belongs to its loop's thread.
#ifndef LINK_POOL_H
#define LINK_POOL_H

#include "link.h"

typedef struct link_pool link_pool;

// `err` 0 with a link that is up and yours until released; else why there is none.
typedef void (*link_pool_got)(void *user, int err, link_client *l);

typedef struct link_pool_opts {
    link_opts link;     // of each; link.user is their first link_user
    size_t max;         // links; 0: 10, at most 1024
    size_t waiters_max; // users that wait; 0: 1024
    int check_ms;       // silence after which a link must answer before it is lent; 0: 10 s; -1:
                        // it must each time. Without on_ping all are good
    int idle_ms;        // close what was not lent for this long, up or down; 0: never
    // The link is about to be closed: free what its link_user points to. Runs once for each link,
    // also from inside link_pool_destroy. NULL: nothing to do.
    void (*on_gone)(link_client *l);
} link_pool_opts;

typedef struct link_pool_stats {
    size_t links, up, lent, waiting; // now
    uint64_t opened;                 // links so far
    uint64_t lent_total;
    uint64_t timed_out; // users that waited in vain
} link_pool_stats;

// Gives a pool; link_pool_destroy frees it. `handler` must outlive it; its callbacks are called for
// each link, may_move only for one that is lent.
// Returns 0; NETIO_EINVAL, NETIO_ENOMEM.
static inline int link_pool_create(link_pool **out, netio_loop *loop, const link_handler *handler,
                                   const link_pool_opts *opts);

// Close all links, the lent ones too: they are gone. Who waits gets NETIO_ECANCELED. NULL: nothing.
static inline void link_pool_destroy(link_pool *p);

// Wait for a link; users are served in the order in which they came. timeout_ms -1: no limit; 0:
// only one that is there now. `ticket` (may be NULL) is for cancel, after which `got` does not run.
// Returns 0, and `got` runs once: with NETIO_ETIMEDOUT when time is over; with what a link ended
// with, if it has given up and no other is up. Here: NETIO_EBUSY (waiters_max; timeout_ms is 0 and
// no link is free), NETIO_ENOMEM, NETIO_ECANCELED (destroyed). cancel: NETIO_ESTALE if it ran.
static inline int link_pool_acquire(link_pool *p, uint64_t *ticket, int timeout_ms,
                                    link_pool_got got, void *user);
static inline int link_pool_cancel(link_pool *p, uint64_t ticket);

// Give it back, up or not. `broken`: its connection is not lent again, see link_drop.
static inline void link_pool_release(link_pool *p, link_client *l, bool broken);

static inline link_pool_stats link_pool_get_stats(const link_pool *p);

//================================================================================================
// From here on: how it works
//
// All that happens makes `serve` run in the loop's next turn: it alone lends, opens and closes. A
// place has a link or is free. `busy` as in link.h.
//================================================================================================

typedef struct link_pool__place {
    link_pool *pool;
    link_client *link;   // NULL: free
    bool lent, good;     // good: it answered, or has just been opened
    bool failed;         // it gave up
    uint64_t free_ms;    // since when it is not lent
    uint64_t free_order; // the greatest came back last
} link_pool__place;

typedef struct link_pool__waiter {
    link_pool *pool;
    struct link_pool__waiter *next, *prev;
    uint64_t ticket;
    netio_timer timer;
    link_pool_got got;
    void *user;
} link_pool__waiter;

struct link_pool {
    netio_loop *loop;
    const link_handler *theirs;
    link_handler handler;
    link_pool_opts opts;
    netio_timer timer;
    link_pool__place *places;
    link_pool__waiter *first, *last;
    uint64_t tickets, order;
    link_pool_stats stats;
    int failure; // a link gave up, with this error
    int busy;
    bool destroyed;
};

static inline void link_pool__kick(link_pool *p) { netio_timer_reset(p->timer, 0); }

static inline link_pool__place *link_pool__place_of(const link_client *l)
{
    return (link_pool__place *)l->owner;
}

static inline void link_pool__leave(link_pool *p)
{
    if (--p->busy > 0 || !p->destroyed) return;
    free(p->places);
    free(p);
}

// Takes the waiter out, frees it, and tells it.
static inline void link_pool__tell(link_pool__waiter *w, int err, link_client *l)
{
    link_pool *p = w->pool;
    link_pool_got got = w->got;
    void *user = w->user;
    *(w->prev ? &w->prev->next : &p->first) = w->next;
    *(w->next ? &w->next->prev : &p->last) = w->prev;
    p->stats.waiting--;
    netio_timer_stop(w->timer);
    free(w);
    if (got) got(user, err, l);
}

static inline void link_pool__late(void *user)
{
    link_pool__waiter *w = (link_pool__waiter *)user;
    w->pool->stats.timed_out++;
    link_pool__tell(w, NETIO_ETIMEDOUT, NULL);
}

static inline void link_pool__close(link_pool *p, link_pool__place *at)
{
    link_client *l = at->link;
    memset(at, 0, sizeof *at);
    at->pool = p;
    p->stats.links--;
    l->owner = NULL;
    if (p->opts.on_gone) p->opts.on_gone(l);
    link_close(l);
}

// --- what links call ----------------------------------------------------------------------------

static inline void link_pool__on_up(link_client *l, netio_conn c)
{
    link_pool__place *at = link_pool__place_of(l);
    link_pool *p = at->pool;
    at->good = true;
    link_pool__kick(p);
    if (p->theirs->on_up) p->theirs->on_up(l, c);
}

static inline void link_pool__on_down(link_client *l, int err)
{
    link_pool *p = link_pool__place_of(l)->pool;
    link_pool__kick(p); // somebody may wait for the answer to its ping
    if (p->theirs->on_down) p->theirs->on_down(l, err);
}

static inline void link_pool__on_failed(link_client *l, int err)
{
    link_pool__place *at = link_pool__place_of(l);
    link_pool *p = at->pool;
    at->failed = true;
    p->failure = err;
    link_pool__kick(p);
    if (p->theirs->on_failed) p->theirs->on_failed(l, err);
}

static inline void link_pool__on_ping(link_client *l, netio_conn c)
{
    link_pool__place_of(l)->pool->theirs->on_ping(l, c);
}

static inline bool link_pool__may_move(link_client *l)
{
    link_pool__place *at = link_pool__place_of(l);
    bool (*ask)(link_client *) = at->pool->theirs->may_move;
    return !at->lent || (ask && ask(l));
}

static inline void link_pool__on_seen(link_client *l)
{
    link_pool__place_of(l)->good = true;
    link_pool__kick(link_pool__place_of(l)->pool);
}

// --- serving ------------------------------------------------------------------------------------

static inline int link_pool__open(link_pool *p)
{
    link_pool__place *at = p->places;
    link_opts o = p->opts.link;
    if (o.backoff.seed) o.backoff.seed += (uint32_t)p->stats.opened; // each its own jitter
    while (at->link) at++;
    int err = link_open(&at->link, p->loop, &p->handler, &o);
    if (err < 0) return err;
    at->link->owner = at;
    at->link->on_seen = link_pool__on_seen;
    at->free_ms = netio_loop_now_ms(p->loop);
    p->stats.links++;
    p->stats.opened++;
    return 0;
}

static inline bool link_pool__must_check(const link_pool *p, const link_pool__place *at)
{
    if (!p->theirs->on_ping) return false;
    uint64_t silent_ms = netio_loop_now_ms(p->loop) - at->link->seen_ms;
    if (p->opts.check_ms >= 0) return silent_ms > (uint64_t)p->opts.check_ms;
    return !at->good || silent_ms > 1000; // for whom it answered may have gone
}

// The best place to lend now; NULL: none. `*checks` more pings may be sent on the way.
static inline link_pool__place *link_pool__best(link_pool *p, size_t *checks)
{
    link_pool__place *best = NULL;
    for (size_t i = 0; i < p->opts.max; i++) {
        link_pool__place *at = &p->places[i];
        if (!at->link || at->lent || at->failed || !link_ready(at->link)) continue;
        if (best && best->free_order > at->free_order) continue;
        if (!link_pool__must_check(p, at)) {
            best = at;
        } else if (*checks > 0) {
            --*checks;
            link_check(at->link);
        }
    }
    return best;
}

static inline void link_pool__lend(link_pool *p)
{
    size_t checks = p->stats.waiting;
    while (p->first && !p->destroyed) {
        link_pool__place *at = link_pool__best(p, &checks);
        if (!at) return;
        at->lent = true;
        p->stats.lent++;
        p->stats.lent_total++;
        link_pool__tell(p->first, 0, at->link);
    }
}

// Close what gave up or was idle for long.
static inline void link_pool__tidy(link_pool *p)
{
    uint64_t now = netio_loop_now_ms(p->loop);
    for (size_t i = 0; i < p->opts.max && !p->destroyed; i++) {
        link_pool__place *at = &p->places[i];
        if (!at->link || at->lent) continue;
        bool idle = p->opts.idle_ms > 0 && now - at->free_ms >= (uint64_t)p->opts.idle_ms;
        if (at->failed || (idle && !p->first)) link_pool__close(p, at);
    }
}

static inline bool link_pool__any_up(const link_pool *p)
{
    for (size_t i = 0; i < p->opts.max; i++) {
        if (p->places[i].link && link_is_up(p->places[i].link)) return true;
    }
    return false;
}

static inline void link_pool__tell_all(link_pool *p, int err)
{
    for (size_t n = p->stats.waiting; n > 0 && p->first; n--) link_pool__tell(p->first, err, NULL);
}

// One link that is not lent for each user who waits, if there is room. That one gave up says
// enough of all, if none is up: else new ones would be opened as fast as old ones give up.
static inline void link_pool__grow(link_pool *p)
{
    int err = p->failure;
    p->failure = 0;
    if (err < 0 && !link_pool__any_up(p)) link_pool__tell_all(p, err);
    while (!p->destroyed && p->first && p->stats.links < p->opts.max &&
           p->stats.links - p->stats.lent < p->stats.waiting) {
        err = link_pool__open(p);
        if (err == 0) continue;
        if (p->stats.links > 0) return; // there is one to wait for
        link_pool__tell(p->first, err, NULL);
    }
}

static inline void link_pool__serve(void *user)
{
    link_pool *p = (link_pool *)user;
    p->busy++;
    link_pool__tidy(p);
    link_pool__lend(p);
    if (!p->destroyed) link_pool__grow(p);
    link_pool__leave(p);
}

// --- what you call ------------------------------------------------------------------------------

static inline int link_pool_create(link_pool **out, netio_loop *loop, const link_handler *handler,
                                   const link_pool_opts *opts)
{
    if (opts->check_ms < -1 || opts->idle_ms < 0 || opts->max > 1024) return NETIO_EINVAL;
    link_pool *p = (link_pool *)calloc(1, sizeof *p);
    if (!p) return NETIO_ENOMEM;
    p->loop = loop;
    p->theirs = handler;
    p->opts = *opts;
    if (!p->opts.max) p->opts.max = 10;
    if (!p->opts.waiters_max) p->opts.waiters_max = 1024;
    if (!p->opts.check_ms) p->opts.check_ms = 10000;
    p->handler.on_up = link_pool__on_up;
    p->handler.on_down = link_pool__on_down;
    p->handler.on_failed = link_pool__on_failed;
    if (handler->on_ping) p->handler.on_ping = link_pool__on_ping;
    p->handler.may_move = link_pool__may_move;
    p->places = (link_pool__place *)calloc(p->opts.max, sizeof *p->places);
    int err = p->places ? 0 : NETIO_ENOMEM;
    if (err == 0) err = netio_timer_every(&p->timer, loop, 1000, link_pool__serve, p);
    if (err < 0) {
        free(p->places);
        free(p);
        return err;
    }
    for (size_t i = 0; i < p->opts.max; i++) p->places[i].pool = p;
    *out = p;
    return 0;
}

static inline void link_pool_destroy(link_pool *p)
{
    if (!p || p->destroyed) return;
    p->busy++;
    p->destroyed = true;
    netio_timer_stop(p->timer);
    while (p->first) link_pool__tell(p->first, NETIO_ECANCELED, NULL);
    for (size_t i = 0; i < p->opts.max; i++) {
        if (p->places[i].link) link_pool__close(p, &p->places[i]);
    }
    link_pool__leave(p);
}

static inline int link_pool_acquire(link_pool *p, uint64_t *ticket, int timeout_ms,
                                    link_pool_got got, void *user)
{
    if (p->destroyed) return NETIO_ECANCELED;
    if (p->stats.waiting >= p->opts.waiters_max) return NETIO_EBUSY;
    size_t checks = 0;
    if (timeout_ms == 0 && (p->first || !link_pool__best(p, &checks))) return NETIO_EBUSY;
    link_pool__waiter *w = (link_pool__waiter *)calloc(1, sizeof *w);
    if (!w) return NETIO_ENOMEM;
    int err = 0;
    // One that is there now is lent in the next turn, which may be some milliseconds away.
    if (timeout_ms >= 0)
        err = netio_timer_once(&w->timer, p->loop, timeout_ms ? timeout_ms : 1000, link_pool__late,
                               w);
    if (err < 0) {
        free(w);
        return err;
    }
    w->pool = p;
    w->got = got;
    w->user = user;
    w->ticket = ++p->tickets;
    w->prev = p->last;
    *(p->last ? &p->last->next : &p->first) = w;
    p->last = w;
    p->stats.waiting++;
    if (ticket) *ticket = w->ticket;
    link_pool__kick(p);
    return 0;
}

static inline int link_pool_cancel(link_pool *p, uint64_t ticket)
{
    for (link_pool__waiter *w = p->first; w; w = w->next) {
        if (w->ticket != ticket) continue;
        w->got = NULL;
        link_pool__tell(w, 0, NULL);
        return 0;
    }
    return NETIO_ESTALE;
}

static inline void link_pool_release(link_pool *p, link_client *l, bool broken)
{
    link_pool__place *at = link_pool__place_of(l);
    if (!at || !at->lent) return;
    at->lent = false;
    at->good = false;
    at->free_ms = netio_loop_now_ms(p->loop);
    at->free_order = ++p->order;
    p->stats.lent--;
    if (broken) link_drop(l);
    link_pool__kick(p);
}

static inline link_pool_stats link_pool_get_stats(const link_pool *p)
{
    link_pool_stats s = p->stats;
    for (size_t i = 0; i < p->opts.max; i++) {
        if (p->places[i].link && link_is_up(p->places[i].link)) s.up++;
    }
    return s;
}

#endif // LINK_POOL_H
