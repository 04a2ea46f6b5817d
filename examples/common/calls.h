// Calls that wait for their answers: which request does this answer belong to? One file, for any
// protocol whose messages carry a number, over any transport: no sockets and no clock in here.
//
//     calls_create(&t, NULL);
//     calls_add(t, &id, now_ms, 2000, answered, user); // then send the request with this id
//     calls_finish(t, id, 0, answer, len);             // an answer came, in whatever order
//     calls_expire(t, now_ms);                         // from a timer: see calls_next
//     calls_fail(t, NETIO_ECONNRESET);                 // the connection is lost
//
// Each call ends exactly once: answered, failed, timed out, or cancelled. An id never names two
// calls that wait, and while an answer may still come late to one that has given up, its id rests:
// late answers, second ones and those to nothing are counted and ignored. Ids count up from 1 and
// wrap around. A table is for one connection; all it may hold is allocated when it is made. Every
// operation takes constant time, whatever waits: times stand in a wheel, and `expire` and `next`
// look at its CALLS__SLOTS slots. One thread at a time.
#ifndef CALLS_H
#define CALLS_H

#include "../../netio.h"

#include <stdlib.h>
#include <string.h>

enum {
    CALLS_MOST = 1 << 20, // a table's calls and resting ids, together
    CALLS_TICK_MS = 8     // a call times out by so much too late, never too early
};

typedef struct calls calls;

// Runs once for a call, from the function of the table that ended it: `err` 0 with the answer,
// which is lent, or why there is none. It may call the table, but for calls_destroy.
typedef void (*calls_done)(void *user, int err, const void *answer, size_t len);

typedef struct calls_opts {
    size_t max;      // calls that wait at once; 0: 1024
    size_t late_max; // room for ids that rest beside so many that wait; 0: as many as `max`
    int late_ms;     // how long the id of a call that got no answer rests; 0: 10 s; -1: not at all
    uint32_t id_max; // ids are 1 to this, less where that is no multiple of max + late_max;
                     // 0: 4,294,967,295
} calls_opts;

typedef struct calls_stats {
    uint64_t added; // the sum of the next four and `waiting`
    uint64_t answered, timed_out, cancelled, failed;
    uint64_t refused;                  // calls_add: full
    uint64_t late, duplicate, unknown; // answers that were ignored: too late, second, to nothing
    size_t waiting;
} calls_stats;

// Gives a table; calls_destroy frees it, after the calls that still wait failed with
// NETIO_ECANCELED. NULL: nothing.
// Returns 0; NETIO_ENOMEM; NETIO_EINVAL (more than CALLS_MOST, or than id_max; late_ms below -1).
static inline int calls_create(calls **out, const calls_opts *opts);
static inline void calls_destroy(calls *t);

// Enter a call: `*id` is what to send with it. timeout_ms 0: it ends with the next expire; -1: no
// limit. Gives the call's number, for cancel: one that is never given twice by this table.
// Returns 0; NETIO_EBUSY: `max` calls wait, or all other ids rest; NETIO_EINVAL.
static inline int calls_add(calls *t, uint64_t *call, uint32_t *id, uint64_t now_ms, int timeout_ms,
                            calls_done done, void *user);

// An answer came, or (err) the request could not be sent. Ids come from the peer: any value is
// fine. Returns 0; NETIO_ENOENT: no call waits for it; counted, and nothing happened.
static inline int calls_finish(calls *t, uint64_t id, int err, const void *answer, size_t len);

// End a call whose answer nobody wants any more: `done` does not run.
// Returns 0; NETIO_ESTALE: it has ended.
static inline int calls_cancel(calls *t, uint64_t call, uint64_t now_ms);

// End those whose time is over, with NETIO_ETIMEDOUT. next gives the milliseconds after which to
// call it again, perhaps too early; -1: nothing waits for a time.
static inline void calls_expire(calls *t, uint64_t now_ms);
static inline int calls_next(const calls *t, uint64_t now_ms);

// End all that wait now, in no order, and let all ids rest no longer: no answer can come any more.
// What `done` adds meanwhile belongs to the next connection and stays.
static inline void calls_fail(calls *t, int err);

static inline calls_stats calls_get_stats(const calls *t);

// Messages as text, "7:the rest": gives the number and what follows the colon, inside `line`.
// Returns 0; NETIO_EPROTO: no digit, a zero before others (what is answered would not be what was
// asked), no colon, or a number above 4,294,967,295.
static inline int calls_read_id(const void *line, size_t len, uint32_t *id, netio_buf *rest);

//================================================================================================
// From here on: how it works
//
// An entry is FREE, WAITING or RESTING, and in one list each time: the free ones, a slot of the
// wheel, those without limit, those whose end is under way, the resting ones. Entry number i has
// the calls i + 1, i + 1 + n, i + 1 + 2n... for n entries; ids are the calls' numbers modulo the
// largest multiple of n, so that an id leads to its entry by a division, also past the wrap.
// The free list is a queue: an entry, and with it an id, comes back as late as can be.
//================================================================================================

enum { CALLS__SLOTS = 256 }; // one turn of the wheel: 2 s; what is due later passes several times

enum { CALLS__FREE, CALLS__WAITING, CALLS__RESTING };

typedef struct calls__link {
    struct calls__link *next, *prev;
} calls__link;

typedef struct calls__entry {
    calls__link link; // first, so that one is a pointer to the other
    uint64_t call;    // its number; FREE: of the last one, 0: none yet
    uint64_t until;   // WAITING: tick when its time is over; RESTING: ms when it may come again
    calls_done done;
    void *user;
    int state; // CALLS__*
} calls__entry;

struct calls {
    calls_opts opts;
    calls__entry *entries;
    size_t count;     // of entries
    uint64_t id_span; // ids are 1 to this
    uint64_t tick;    // the wheel has been looked at up to here
    calls__link free, resting, ending, forever, wheel[CALLS__SLOTS];
    calls_stats stats;
};

static inline void calls__list_init(calls__link *list) { list->next = list->prev = list; }

static inline bool calls__list_empty(const calls__link *list) { return list->next == list; }

static inline void calls__list_append(calls__link *list, calls__link *item)
{
    item->next = list;
    item->prev = list->prev;
    list->prev->next = item;
    list->prev = item;
}

static inline void calls__list_remove(calls__link *item)
{
    item->prev->next = item->next;
    item->next->prev = item->prev;
}

static inline calls__entry *calls__entry_of(calls__link *item)
{
    return (calls__entry *)(void *)item;
}

static inline void calls__list_move_all(calls__link *to, calls__link *from)
{
    if (calls__list_empty(from)) return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    calls__list_init(from);
}

static inline void calls__set_free(calls *t, calls__entry *e)
{
    calls__list_remove(&e->link);
    calls__list_append(&t->free, &e->link);
    e->state = CALLS__FREE;
}

static inline void calls__set_resting(calls *t, calls__entry *e, uint64_t now_ms)
{
    if (t->opts.late_ms < 0) {
        calls__set_free(t, e);
        return;
    }
    calls__list_remove(&e->link);
    calls__list_append(&t->resting, &e->link); // in order of time, as all rest equally long
    e->state = CALLS__RESTING;
    e->until = now_ms + (uint64_t)t->opts.late_ms;
}

static inline void calls__free_rested(calls *t, uint64_t now_ms)
{
    while (!calls__list_empty(&t->resting)) {
        calls__entry *e = calls__entry_of(t->resting.next);
        if (e->until > now_ms) return;
        calls__set_free(t, e);
    }
}

static inline uint32_t calls__id(const calls *t, uint64_t call)
{
    return (uint32_t)((call - 1) % t->id_span + 1);
}

static inline int calls_create(calls **out, const calls_opts *opts)
{
    calls_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.max == 0) o.max = 1024;
    if (o.late_max == 0) o.late_max = o.max;
    if (o.late_ms == 0) o.late_ms = 10000;
    if (o.id_max == 0) o.id_max = UINT32_MAX;
    if (o.late_ms < -1 || o.max > CALLS_MOST || o.late_max > CALLS_MOST - o.max)
        return NETIO_EINVAL;
    size_t count = o.max + o.late_max;
    if (count > o.id_max) return NETIO_EINVAL;

    calls *t = (calls *)calloc(1, sizeof *t);
    calls__entry *entries = (calls__entry *)calloc(count, sizeof *entries);
    if (!t || !entries) {
        free(t);
        free(entries);
        return NETIO_ENOMEM;
    }
    t->opts = o;
    t->entries = entries;
    t->count = count;
    t->id_span = o.id_max / count * count;
    calls__list_init(&t->free);
    calls__list_init(&t->resting);
    calls__list_init(&t->ending);
    calls__list_init(&t->forever);
    for (size_t i = 0; i < CALLS__SLOTS; i++) calls__list_init(&t->wheel[i]);
    for (size_t i = 0; i < count; i++) calls__list_append(&t->free, &entries[i].link);
    *out = t;
    return 0;
}

static inline void calls_destroy(calls *t)
{
    if (!t) return;
    t->opts.max = 0; // nothing new
    calls_fail(t, NETIO_ECANCELED);
    free(t->entries);
    free(t);
}

static inline int calls_add(calls *t, uint64_t *call, uint32_t *id, uint64_t now_ms, int timeout_ms,
                            calls_done done, void *user)
{
    if (!done || !id) return NETIO_EINVAL;
    calls__free_rested(t, now_ms);
    if (t->stats.waiting >= t->opts.max || calls__list_empty(&t->free)) {
        t->stats.refused++;
        return NETIO_EBUSY;
    }
    calls__entry *e = calls__entry_of(t->free.next);
    calls__link *list = &t->forever;
    if (timeout_ms >= 0) {
        e->until = (now_ms + (uint64_t)timeout_ms + CALLS_TICK_MS - 1) / CALLS_TICK_MS;
        if (e->until <= t->tick) e->until = t->tick + 1; // its slot has been passed
        list = &t->wheel[e->until % CALLS__SLOTS];
    }
    calls__list_remove(&e->link);
    calls__list_append(list, &e->link);
    e->state = CALLS__WAITING;
    e->call = e->call ? e->call + t->count : (uint64_t)(e - t->entries) + 1;
    e->done = done;
    e->user = user;
    t->stats.added++;
    t->stats.waiting++;
    if (call) *call = e->call;
    *id = calls__id(t, e->call);
    return 0;
}

static inline int calls_finish(calls *t, uint64_t id, int err, const void *answer, size_t len)
{
    calls__entry *e = id > 0 && id <= t->id_span ? &t->entries[(id - 1) % t->count] : NULL;
    if (!e || !e->call || calls__id(t, e->call) != id) {
        t->stats.unknown++;
        return NETIO_ENOENT;
    }
    int was = e->state;
    if (was == CALLS__FREE) {
        t->stats.duplicate++;
        return NETIO_ENOENT;
    }
    calls__set_free(t, e);
    if (was == CALLS__RESTING) { // what it rested for has come
        t->stats.late++;
        return NETIO_ENOENT;
    }
    t->stats.waiting--;
    if (err < 0) t->stats.failed++;
    else t->stats.answered++;
    e->done(e->user, err, answer, len);
    return 0;
}

static inline int calls_cancel(calls *t, uint64_t call, uint64_t now_ms)
{
    calls__entry *e = call > 0 ? &t->entries[(call - 1) % t->count] : NULL;
    if (!e || e->call != call || e->state != CALLS__WAITING) return NETIO_ESTALE;
    calls__set_resting(t, e, now_ms);
    t->stats.waiting--;
    t->stats.cancelled++;
    return 0;
}

// Each `done` may call the table, this function too: so what is still to end stands in a list of
// the table, out of which any of those calls may take it.
static inline void calls__end_all(calls *t, int err, bool late, uint64_t now_ms)
{
    while (!calls__list_empty(&t->ending)) {
        calls__entry *e = calls__entry_of(t->ending.next);
        t->stats.waiting--;
        if (late) { // an answer may still come
            t->stats.timed_out++;
            calls__set_resting(t, e, now_ms);
        } else {
            t->stats.failed++;
            calls__set_free(t, e);
        }
        e->done(e->user, err, NULL, 0);
    }
}

static inline void calls_expire(calls *t, uint64_t now_ms)
{
    uint64_t tick = now_ms / CALLS_TICK_MS;
    calls__free_rested(t, now_ms);
    for (uint64_t i = 0; i < CALLS__SLOTS && t->tick + i < tick; i++) {
        calls__link *slot = &t->wheel[(t->tick + i + 1) % CALLS__SLOTS];
        calls__link *next;
        for (calls__link *at = slot->next; at != slot; at = next) {
            next = at->next;
            if (calls__entry_of(at)->until > tick) continue; // in a later turn
            calls__list_remove(at);
            calls__list_append(&t->ending, at);
        }
    }
    if (tick > t->tick) t->tick = tick;
    calls__end_all(t, NETIO_ETIMEDOUT, true, now_ms);
}

static inline int calls_next(const calls *t, uint64_t now_ms)
{
    for (uint64_t i = 1; i <= CALLS__SLOTS; i++) {
        if (calls__list_empty(&t->wheel[(t->tick + i) % CALLS__SLOTS])) continue;
        uint64_t at_ms = (t->tick + i) * CALLS_TICK_MS;
        if (at_ms <= now_ms) return 0;
        return at_ms - now_ms < 60000 ? (int)(at_ms - now_ms) : 60000;
    }
    return -1;
}

static inline void calls_fail(calls *t, int err)
{
    for (size_t i = 0; i < CALLS__SLOTS; i++) calls__list_move_all(&t->ending, &t->wheel[i]);
    calls__list_move_all(&t->ending, &t->forever);
    calls__free_rested(t, UINT64_MAX);
    calls__end_all(t, err, false, 0);
}

static inline calls_stats calls_get_stats(const calls *t) { return t->stats; }

static inline int calls_read_id(const void *line, size_t len, uint32_t *id, netio_buf *rest)
{
    const char *p = (const char *)line;
    uint64_t value = 0;
    size_t i = 0;
    for (; i < len && p[i] >= '0' && p[i] <= '9'; i++) {
        value = value * 10 + (uint64_t)(p[i] - '0');
        if (value > UINT32_MAX) return NETIO_EPROTO;
    }
    if (i == 0 || i == len || p[i] != ':' || (p[0] == '0' && i > 1)) return NETIO_EPROTO;
    *id = (uint32_t)value;
    rest->data = p + i + 1;
    rest->len = len - i - 1;
    return 0;
}

#endif // CALLS_H
