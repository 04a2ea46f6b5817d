// A client's connection that comes back: it is dialed, watched, and dialed again when it is lost,
// by a list of servers, the best one first. One file, for any protocol, on netio's loop.
//
//     static const netio_handler conn = {.on_frame = on_frame};
//     static const link_handler handler = {.on_up = log_in_and_subscribe, .on_down = fail_calls};
//     static const char *const servers[] = {"primary:7000", "backup:7000"};
//     link_opts opts = {.conn = &conn, .servers = servers, .server_count = 2};
//     link_open(&l, loop, &handler, &opts);
//     netio_conn_send(link_conn(l), data, len); // NETIO_ESTALE while it is down
//
// How it behaves, at first and after every loss alike:
//   - an attempt is bounded (5 s); when one server fails the next is tried at once, and when all
//     have failed in turn there is a pause: netio_backoff, with jitter
//   - a connection that ends soon after it was made (stable_ms) is one more failed attempt, so a
//     server that accepts and closes is not stormed
//   - after backoff.tries_max rounds it gives up, and says so once; link_close stops it any time
//   - over a worse server than the first it looks now and then (probe_ms) whether a better one is
//     back. The new connection waits until nothing is under way on the old one (may_move, but at
//     most move_ms); then the old one is closed. Messages only ever go over one
//   - a peer that vanished without a word is found out by pings of the protocol (on_ping)
//
// Callbacks come from the loop, never from inside a call of yours, and any call is legal in them.
// A link belongs to its loop's thread. Close it before the loop is destroyed.
#ifndef LINK_H
#define LINK_H

#include "../../netio.h"

#include <stdlib.h>
#include <string.h>

enum { LINK_SERVERS_MAX = 16 };

typedef struct link_client link_client;

// Each may be NULL.
typedef struct link_handler {
    // Connected, for the first time or again: tell the server what it must know of you.
    void (*on_up)(link_client *l, netio_conn c);
    // What was up is gone: what was asked over it gets no answer. 0: the peer closed, or the link
    // has moved to a better server, and on_up follows.
    void (*on_down)(link_client *l, int err);
    // It gave up, with the error of the last attempt. Once; then link_close, here or later.
    void (*on_failed)(link_client *l, int err);
    // Nothing came for ping_ms: send something that is answered at once. Anything that arrives
    // counts as the answer; without one within ping_limit_ms the connection is lost.
    void (*on_ping)(link_client *l, netio_conn c);
    // A better server is back: true if nothing is under way. Asked until it is; NULL: always.
    bool (*may_move)(link_client *l);
} link_handler;

// What it points to is borrowed until link_close.
typedef struct link_opts {
    void *user;
    const netio_handler *conn;  // what comes: on_data, on_frame, on_bad_frame, on_drain, on_eof,
                                // on_timeout, on_secure, on_stop. Their user is the link: link_of
    const char *const *servers; // as netio_conn_dial takes them, best first
    size_t server_count;        // 1 to LINK_SERVERS_MAX
    netio_dial_opts dial;       // timeout_ms 0: 5 s; conn.user is not used
    netio_backoff backoff;      // between rounds; tries_max 0: it never gives up
    int stable_ms;              // an attempt has succeeded once it is up for so long; 0: 5 s
    int probe_ms;               // between looks for a better server; 0: 30 s; -1: never
    int move_ms;                // how long a better one waits for may_move; 0: 5 s
    int ping_ms;                // silence before on_ping; 0: 10 s
    int ping_limit_ms;          // from a ping to its answer; 0: 5 s
} link_opts;

// Begin to connect. Gives a link; link_close frees it. `handler` must outlive it.
// Returns 0; NETIO_EINVAL (servers; a negative time), NETIO_ENOMEM.
static inline int link_open(link_client **out, netio_loop *loop, const link_handler *handler,
                            const link_opts *opts);

// Stop for good: what is queued is still sent, as by netio_conn_close, but nothing is called any
// more and `l` is gone. NULL: nothing.
static inline void link_close(link_client *l);

// Its connection is of no use (a wrong answer, for example): reset it. on_down follows, then the
// usual attempts. Nothing if it is not up.
static inline void link_drop(link_client *l);

// Have on_ping called now, unless the answer to a ping is awaited already.
static inline void link_check(link_client *l);

//================================================================================================
// What you can ask a link, and what is in it: all fields are private
//
//     DIALING --open--> UP --lost--> DIALING (the next server) or WAITING
//     DIALING --failed--> DIALING (the next one); after the last one WAITING
//     WAITING --pause is over--> DIALING; if that was the last round FAILED
//
// `tried` has a bit for each server that failed since the last pause, or since the link was last
// up for stable_ms; `better` is a second connection, being made to a better server or waiting to
// take over. The memory stays until the last connection's on_close; `busy` counts our callbacks
// that are running, so that link_close may be called in those that they call.
//================================================================================================

enum { LINK__DIALING, LINK__UP, LINK__WAITING, LINK__FAILED };

struct link_client {
    netio_loop *loop;
    const link_handler *handler;
    link_opts opts;
    netio_handler wrapped, theirs; // what netio calls, and what that calls
    netio_conn conn, better;
    netio_timer pause, tick;
    netio_heartbeat heart;
    int state;           // LINK__*
    int why;             // for which error it was aborted here; 0: it was not
    unsigned tried;      // bits
    size_t at, probe_at; // servers of `conn` and `better`
    bool better_ready, closed, stopped;
    int busy, open; // open: connections whose on_close is to come
    uint64_t up_ms, seen_ms, probed_ms, ready_ms;
    uint64_t asked_ms;               // link_check: when; 0: no answer is awaited
    void *owner;                     // for link_pool.h
    void (*on_seen)(link_client *l); // likewise: an answer to link_check came
};

static inline bool link_is_up(const link_client *l)
{
    return l->state == LINK__UP && netio_conn_alive(l->conn);
}

// Up, and not about to move: more work may begin.
static inline bool link_ready(const link_client *l) { return link_is_up(l) && !l->better_ready; }

// The connection; a stale one while it is down.
static inline netio_conn link_conn(const link_client *l)
{
    netio_conn none = {NULL, 0};
    return l->state == LINK__UP ? l->conn : none;
}

// The server that it is or was up with, or tries.
static inline const char *link_server(const link_client *l) { return l->opts.servers[l->at]; }

// The link of a connection, in your callbacks; your pointer.
static inline link_client *link_of(netio_conn c) { return (link_client *)netio_conn_user(c); }
static inline void *link_user(const link_client *l) { return l->opts.user; }
static inline void link_set_user(link_client *l, void *user) { l->opts.user = user; }

static const netio_conn link__no_conn = {NULL, 0};
static const netio_timer link__no_timer = {NULL, 0};

static inline void link__next(link_client *l, int why);
static inline void link__tick(void *user);

static inline uint64_t link__now(const link_client *l) { return netio_loop_now_ms(l->loop); }

static inline void link__leave(link_client *l)
{
    if (--l->busy == 0 && l->closed && l->open == 0) free(l);
}

static inline void link__stop_timers(link_client *l)
{
    netio_timer_stop(l->pause);
    netio_timer_stop(l->tick);
    l->pause = l->tick = link__no_timer;
}

static inline int link__dial(link_client *l, size_t at, netio_conn *out)
{
    int err = netio_conn_dial(out, l->loop, l->opts.servers[at], &l->wrapped, &l->opts.dial);
    if (err == 0) l->open++;
    return err;
}

static inline void link__again(void *user)
{
    link_client *l = (link_client *)user;
    l->busy++;
    l->pause = link__no_timer;
    link__next(l, 0);
    link__leave(l);
}

// The next server of this round, or the pause before the next round, or the end.
static inline void link__next(link_client *l, int why)
{
    if (l->stopped) return;
    for (size_t i = 0; i < l->opts.server_count; i++) {
        if (l->tried & 1u << i) continue;
        l->tried |= 1u << i;
        int err = link__dial(l, i, &l->conn);
        if (err == 0) {
            l->at = i;
            l->state = LINK__DIALING;
            return;
        }
        why = err;
    }
    int pause_ms = netio_backoff_next(&l->opts.backoff);
    if (pause_ms >= 0) {
        l->tried = 0;
        l->state = LINK__WAITING;
        int err = netio_timer_once(&l->pause, l->loop, pause_ms, link__again, l);
        if (err == 0) return;
        why = err;
    }
    l->state = LINK__FAILED;
    link__stop_timers(l);
    if (l->handler->on_failed) l->handler->on_failed(l, why);
}

static inline void link__up(link_client *l, netio_conn c, size_t at)
{
    uint64_t now = link__now(l);
    l->conn = c;
    l->at = at;
    l->state = LINK__UP;
    l->why = 0;
    l->up_ms = l->seen_ms = l->probed_ms = now;
    l->asked_ms = 0;
    memset(&l->heart, 0, sizeof l->heart);
    l->heart.interval_ms = l->opts.ping_ms;
    l->heart.limit_ms = l->opts.ping_limit_ms;
    netio_heartbeat_tick(&l->heart, now);
    if (l->handler->on_up) l->handler->on_up(l, c);
}

// The better connection takes over; what it was sent before has waited.
static inline void link__move(link_client *l)
{
    netio_conn c = l->better;
    l->better = link__no_conn;
    l->better_ready = false;
    netio_conn_resume(c);
    link__up(l, c, l->probe_at);
}

// What was up is up no more.
static inline void link__down(link_client *l, int err)
{
    if (link__now(l) - l->up_ms >= (uint64_t)l->opts.stable_ms) {
        l->tried = 0;
        l->opts.backoff.tries = 0;
    }
    l->conn = link__no_conn;
    l->state = LINK__WAITING;
    if (l->handler->on_down) l->handler->on_down(l, err);
}

static inline void link__lost(link_client *l, int err)
{
    link__down(l, err);
    l->tried |= 1u << l->at;
    if (l->closed) return;
    if (l->better_ready) {
        link__move(l);
    } else if (l->better.ptr) { // it was being made in any case
        l->conn = l->better;
        l->better = link__no_conn;
        l->at = l->probe_at;
        l->tried |= 1u << l->at;
        l->state = LINK__DIALING;
    } else {
        link__next(l, err);
    }
}

static inline void link__probe(link_client *l, size_t from)
{
    l->better = link__no_conn;
    l->better_ready = false;
    for (l->probe_at = from; l->probe_at < l->at; l->probe_at++) {
        if (link__dial(l, l->probe_at, &l->better) == 0) return;
    }
    l->probed_ms = link__now(l);
}

// --- what netio calls ---------------------------------------------------------------------------

static inline void link__on_open(netio_conn c)
{
    link_client *l = link_of(c);
    l->busy++;
    if (netio_conn_same(c, l->better)) {
        netio_conn_pause(c);
        l->better_ready = true;
        l->ready_ms = link__now(l);
        netio_timer_reset(l->tick, 0);
    } else if (netio_conn_same(c, l->conn)) {
        link__up(l, c, l->at);
    }
    link__leave(l);
}

static inline void link__on_close(netio_conn c, int err)
{
    link_client *l = link_of(c);
    l->busy++;
    l->open--;
    if (l->closed) {
        // Nothing is called any more.
    } else if (netio_conn_same(c, l->better)) {
        link__probe(l, l->better_ready || l->stopped ? l->at : l->probe_at + 1);
    } else if (netio_conn_same(c, l->conn)) {
        if (l->why) err = l->why;
        l->why = 0;
        if (l->state == LINK__UP) link__lost(l, err);
        else link__next(l, err);
    }
    link__leave(l);
}

static inline void link__on_stop(netio_conn c)
{
    link_client *l = link_of(c);
    l->stopped = true;
    if (l->theirs.on_stop && netio_conn_same(c, l->conn)) l->theirs.on_stop(c);
    else netio_conn_close(c);
}

static inline void link__seen(link_client *l, netio_conn c)
{
    if (!netio_conn_same(c, l->conn)) return;
    l->seen_ms = link__now(l);
    netio_heartbeat_seen(&l->heart, l->seen_ms);
    if (!l->asked_ms) return;
    l->asked_ms = 0;
    if (l->on_seen) l->on_seen(l);
}

static inline void link__on_data(netio_conn c, const void *data, size_t len)
{
    link_client *l = link_of(c);
    link__seen(l, c);
    if (l->theirs.on_data) l->theirs.on_data(c, data, len);
}

static inline void link__on_frame(netio_conn c, const netio_frame *frame)
{
    link_client *l = link_of(c);
    link__seen(l, c);
    if (l->theirs.on_frame) l->theirs.on_frame(c, frame);
}

static inline void link__tick_heart(link_client *l)
{
    uint64_t now = link__now(l);
    if (!l->handler->on_ping || !netio_conn_alive(l->conn)) return;
    int what = netio_heartbeat_tick(&l->heart, now);
    bool late = l->asked_ms && now - l->asked_ms >= (uint64_t)l->opts.ping_limit_ms;
    if (what == NETIO_HEARTBEAT_DEAD || late) {
        l->why = NETIO_ETIMEDOUT;
        netio_conn_abort(l->conn);
    } else if (what == NETIO_HEARTBEAT_PING) {
        l->handler->on_ping(l, l->conn);
    }
}

static inline void link__tick_better(link_client *l)
{
    uint64_t now = link__now(l);
    if (l->better_ready) {
        bool idle = !l->handler->may_move || l->handler->may_move(l);
        if (l->closed) return;
        netio_timer_reset(l->tick, 20);
        if (!idle && now - l->ready_ms < (uint64_t)l->opts.move_ms) return;
        netio_conn_close(l->conn);
        link__down(l, 0);
        if (!l->closed) link__move(l);
    } else if (l->at > 0 && !l->better.ptr && l->opts.probe_ms >= 0 && !l->stopped) {
        if (now - l->probed_ms >= (uint64_t)l->opts.probe_ms) link__probe(l, 0);
    }
}

static inline void link__tick(void *user)
{
    link_client *l = (link_client *)user;
    l->busy++;
    if (l->state == LINK__UP) link__tick_heart(l);
    if (!l->closed && l->state == LINK__UP) link__tick_better(l);
    link__leave(l);
}

// --- what you call ------------------------------------------------------------------------------

// Often enough to keep the times that the options ask for, to a quarter.
static inline int link__tick_ms(const link_client *l)
{
    int ms = 4000;
    if (l->handler->on_ping && l->opts.ping_ms < ms) ms = l->opts.ping_ms;
    if (l->handler->on_ping && l->opts.ping_limit_ms < ms) ms = l->opts.ping_limit_ms;
    if (l->opts.server_count > 1 && l->opts.probe_ms >= 0 && l->opts.probe_ms < ms)
        ms = l->opts.probe_ms;
    return ms < 40 ? 10 : ms / 4;
}

static inline void link__wrap(link_client *l)
{
    if (l->opts.conn) l->theirs = *l->opts.conn;
    l->wrapped = l->theirs;
    l->wrapped.on_open = link__on_open;
    l->wrapped.on_close = link__on_close;
    l->wrapped.on_stop = link__on_stop;
    l->wrapped.on_data = link__on_data;
    l->wrapped.on_frame = link__on_frame;
}

static inline int link_open(link_client **out, netio_loop *loop, const link_handler *handler,
                            const link_opts *opts)
{
    if (opts->server_count < 1 || opts->server_count > LINK_SERVERS_MAX) return NETIO_EINVAL;
    if (opts->stable_ms < 0 || opts->probe_ms < -1 || opts->move_ms < 0 || opts->ping_ms < 0 ||
        opts->ping_limit_ms < 0)
        return NETIO_EINVAL;
    link_client *l = (link_client *)calloc(1, sizeof *l);
    if (!l) return NETIO_ENOMEM;
    l->loop = loop;
    l->handler = handler;
    l->opts = *opts;
    l->opts.dial.conn.user = l;
    if (!l->opts.dial.timeout_ms) l->opts.dial.timeout_ms = 5000;
    if (!l->opts.stable_ms) l->opts.stable_ms = 5000;
    if (!l->opts.probe_ms) l->opts.probe_ms = 30000;
    if (!l->opts.move_ms) l->opts.move_ms = 5000;
    if (!l->opts.ping_ms) l->opts.ping_ms = 10000;
    if (!l->opts.ping_limit_ms) l->opts.ping_limit_ms = 5000;
    link__wrap(l);

    int err = 0;
    bool ticks = handler->on_ping || opts->server_count > 1;
    if (ticks) err = netio_timer_every(&l->tick, loop, link__tick_ms(l), link__tick, l);
    if (err == 0) err = link__dial(l, 0, &l->conn);
    if (err < 0) {
        link__stop_timers(l);
        free(l);
        return err;
    }
    l->tried = 1;
    *out = l;
    return 0;
}

static inline void link_close(link_client *l)
{
    if (!l || l->closed) return;
    l->closed = true;
    link__stop_timers(l);
    if (l->state == LINK__UP) netio_conn_close(l->conn);
    else netio_conn_abort(l->conn);
    netio_conn_abort(l->better);
    if (l->busy == 0 && l->open == 0) free(l);
}

static inline void link_drop(link_client *l)
{
    if (!link_is_up(l)) return;
    l->why = NETIO_ECONNABORTED;
    netio_conn_abort(l->conn);
}

static inline void link_check(link_client *l)
{
    if (!link_is_up(l) || l->asked_ms || !l->handler->on_ping) return;
    l->asked_ms = link__now(l);
    l->handler->on_ping(l, l->conn);
}

#endif // LINK_H
