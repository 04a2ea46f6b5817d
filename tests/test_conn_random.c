// BACKENDS: all memory
//
// Random legal calls from random callbacks. Both ends of every connection are in this program, so
// it knows what each end wrote and what the other must get, and holds netio to its word:
//
//   - on_open at most once and first, on_close exactly once and last, for each handle;
//   - no callback inside a call;
//   - bytes arrive in order and unchanged; on_eof comes after the last of them; if some are
//     missing, an end was told of an error, or closed by itself;
//   - a handle that was closed is stale for every call, whatever lives in its place;
//   - owned memory is untouched until it is released, once; filters are opened and closed in pairs;
//   - when all is over, no descriptor and no block of memory is left;
//   - in memory, one seed gives one order of events.
//
// A failure prints its seed. NETIO_SEED=n runs that seed alone and prints its events; NETIO_SEEDS=n
// says how many are run.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifdef _WIN32
#include <io.h>
#endif

enum { PERIOD = 65521, HELLO = 4, ENDS = 512, LIVE_MAX = 24, TIMERS = 8, LISTENERS = 4, HOSTS = 2 };

//================================================================================================
// What is known of an end of a connection
//================================================================================================

typedef struct end {
    int id;
    int host; // which loop
    netio_conn c;
    struct end *peer; // once its hello was read
    uint64_t taken;   // bytes that netio took to send
    uint64_t torn;    // of a last write, at which a filter failed: some of them may have left
    uint64_t got;     // bytes that were handed out and not unread
    size_t kept;      // bytes unread by the last on_data
    unsigned char hello[HELLO];
    // Behind its own bytes come those of another end: it was joined to `tail_of`, which had taken
    // in `tail_got` by then.
    struct end *tail_of;
    uint64_t tail_at, tail_got;
    bool opened, over;
    bool shut, closing; // this program called shutdown; close or abort
    bool aborted;
    bool dropping; // has, or had, a handler without on_data
    bool paused, joined, refused, eof, in_data;
    bool refiltered; // a filter or framing came after bytes were unread: they come in pieces
    size_t framed;   // in frames of so many bytes; 0: not
    bool doomed;     // a call found it stale: on_close must follow
    bool broken;     // a write found that the peer takes no more: on_close must say so
    int err;
    int filters;
    bool pair; // of netio_conn_pair: no socket
} end;

// One handle that was given out. A connection that is detached and adopted again has two.
typedef struct grip {
    end *e;
    netio_conn c;
    bool opened;
    int closed;
} grip;

typedef struct owned {
    size_t len;
    const unsigned char *want;
    unsigned char data[1];
} owned;

static struct {
    uint32_t seed, random;
    bool memory, trace, winding_down, finishing, quiet;
    int ops; // left
    netio_network *network;
    netio_loop *loop[HOSTS];
    int hosts;
    end *ends[ENDS];
    int end_count;
    grip *grips[ENDS * 2];
    int grip_count;
    netio_listener listener[LISTENERS];
    char address[LISTENERS][NETIO_ADDR_TEXT];
    bool listening[LISTENERS];
    netio_timer timer[TIMERS];
    int calling;  // inside a call of netio's
    int callback; // inside a callback
    long owned;   // not released
    long filters, filter_refs;
    bool failing; // allocations fail now and then
    uint64_t events, hash, bytes;
    FILE *file;
    netio_file handle;
} w;

static unsigned char pattern[PERIOD * 6];

static uint32_t dice(uint32_t sides) { return test_random(&w.random) % sides; }

// Small, medium and large ones, all often.
static size_t some_size(size_t max)
{
    static const uint32_t tops[] = {4, 100, 3000, 20000, 200000};
    size_t n = dice(tops[dice(5)]) + 1;
    return n < max ? n : max;
}

static void event(const char *what, int id, long long number)
{
    uint64_t parts[2];
    w.events++;
    parts[0] = (uint64_t)(unsigned char)what[0] << 32 | (uint32_t)id;
    parts[1] = (uint64_t)number;
    for (int i = 0; i < 2; i++) w.hash = (w.hash ^ parts[i]) * 1099511628211u;
    if (w.trace) printf("    %-10s end %d: %lld\n", what, id, number);
}

static void violation(int line, const end *e, const char *what, long long a, long long b)
{
    test_fail(__FILE__, line, "seed %lu, end %d: %s (%lld, %lld)", (unsigned long)w.seed,
              e ? e->id : -1, what, a, b);
}

// What must hold, said in words; the numbers help to see why it does not.
#define HOLD(e, cond, what, a, b)                                                                  \
    ((cond) ? (void)0 : violation(__LINE__, e, what, (long long)(a), (long long)(b)))

// A call of netio's, in which no callback may run.
static int called(int result)
{
    w.calling--;
    return result;
}
#define CALL(call) (w.calling++, called((int)(call)))

// In a callback; never inside a call.
static void enter(const end *e)
{
    HOLD(e, w.calling == 0, "a callback ran inside a call", w.calling, 0);
    HOLD(e, w.callback == 0, "a callback ran inside a callback", w.callback, 0);
    w.callback++;
}

static void leave(void) { w.callback--; }

static bool allowed(int err) { return err == 0 || (w.failing && err == NETIO_ENOMEM); }

// The end is not over as far as this program knows, but a call finds it stale: it has failed, and
// on_close is due.
static bool gone(end *e, int err)
{
    if (err != NETIO_ESTALE) return false;
    e->doomed = true;
    return true;
}

static bool usable(const end *e) { return e && !e->over && !e->closing && !e->doomed; }

//================================================================================================
// Streams: the bytes of an end are a pattern, at a place of its own
//================================================================================================

static void fill_pattern(void)
{
    uint32_t state = 12345;
    for (int i = 0; i < PERIOD; i++) pattern[i] = (unsigned char)(test_random(&state) >> 9);
    for (size_t i = PERIOD; i < sizeof pattern; i++) pattern[i] = pattern[i - PERIOD];
}

static const unsigned char *bytes_at(const end *e, uint64_t pos)
{
    return pattern + (pos + 97u * (uint64_t)e->id) % PERIOD;
}

// All that will come out at the other side, as far as it is known now.
static uint64_t total(const end *e)
{
    if (!e->tail_of) return e->taken;
    const end *source = e->tail_of->peer;
    return e->tail_at + total(source) - e->tail_got;
}

// And how much more may come, of a write at which a filter failed.
static uint64_t torn(const end *e) { return e->torn + (e->tail_of ? torn(e->tail_of->peer) : 0); }

// The bytes of an end from `pos` on, in one run: how many, and where.
static size_t run_of(const end *e, uint64_t pos, size_t len, const unsigned char **bytes)
{
    if (e->tail_of && pos >= e->tail_at)
        return run_of(e->tail_of->peer, e->tail_got + (pos - e->tail_at), len, bytes);
    if (e->tail_of && len > e->tail_at - pos) len = (size_t)(e->tail_at - pos);
    if (len > PERIOD) len = PERIOD;
    *bytes = bytes_at(e, pos);
    return len;
}

static void check_bytes(const end *e, const unsigned char *data, size_t len)
{
    uint64_t pos = e->got;
    while (len > 0) {
        const unsigned char *want;
        size_t n = run_of(e->peer, pos, len, &want);
        if (memcmp(data, want, n) != 0) {
            size_t i = 0;
            while (data[i] == want[i]) i++;
            violation(__LINE__, e, "other bytes than were written, at", (long long)(pos + i),
                      (long long)total(e->peer));
        }
        pos += n;
        data += n;
        len -= n;
    }
    HOLD(e, pos <= total(e->peer) + torn(e->peer), "more bytes than were written", pos,
         total(e->peer));
}

static void write_hello(end *e)
{
    unsigned char h[HELLO];
    h[0] = 'E';
    h[1] = (unsigned char)(e->id & 255);
    h[2] = (unsigned char)(e->id >> 8);
    h[3] = (unsigned char)(e->id ^ 0xA5);
    int err = CALL(netio_conn_write(e->c, h, HELLO));
    if (gone(e, err)) return;
    HOLD(e, allowed(err), "the first write fails", err, 0);
    if (err == 0) e->taken = HELLO;
    else e->refused = true; // nobody can know who it is
}

// Who is at the other end: its first four bytes say so.
static void meet(end *e)
{
    int id = e->hello[1] | e->hello[2] << 8;
    if (e->hello[0] == 'R') { // the listener's refusal
        e->refused = true;
        return;
    }
    HOLD(e, e->hello[0] == 'E' && id < w.end_count && e->hello[3] == (unsigned char)(id ^ 0xA5),
         "no hello", e->hello[0], id);
    end *other = w.ends[id];
    HOLD(e, !other->peer || other->peer == e, "two ends met the same", id, 0);
    HOLD(e, other != e, "it met itself", id, 0);
    e->peer = other;
}

static void take_in(end *e, const unsigned char *data, size_t len)
{
    while (len > 0 && e->got < HELLO && !e->refused && !e->dropping) {
        e->hello[e->got++] = *data++;
        len--;
        if (e->got == HELLO || e->hello[0] == 'R') meet(e);
    }
    if (e->peer && len > 0 && !e->dropping) check_bytes(e, data, len);
    e->got += len;
}

//================================================================================================
// Filters that change nothing
//================================================================================================

typedef struct sieve {
    int kind;
    bool ready, ended;
    unsigned char *held; // what came before it was ready
    size_t held_len;
} sieve;

enum { PLAIN = 1, SLOW, FRAGILE }; // explicit; ready later; fails now and then

static void sieve_ref(void *arg)
{
    (void)arg;
    w.filter_refs++;
}

static void sieve_unref(void *arg)
{
    (void)arg;
    w.filter_refs--;
}

static int sieve_open(netio_filter_io *io, void *arg)
{
    sieve *f = (sieve *)calloc(1, sizeof *f);
    f->kind = (int)(intptr_t)arg;
    w.filters++;
    netio_filter_set_self(io, f);
    if (f->kind == FRAGILE && dice(4) == 0) return NETIO_EPROTO;
    if (f->kind == SLOW) {
        netio_filter_timer(io, (int)dice(20));
        return 0;
    }
    f->ready = true;
    return netio_filter_ready(io);
}

static int sieve_deliver(netio_filter_io *io, const unsigned char *data, size_t len)
{
    while (len > 0) {
        size_t n = dice(2) ? len : 1 + dice((uint32_t)len);
        int err = netio_filter_deliver(io, data, n);
        if (err < 0) return err;
        data += n;
        len -= n;
    }
    return 0;
}

static int sieve_timer(netio_filter_io *io)
{
    sieve *f = (sieve *)netio_filter_self(io);
    f->ready = true;
    int err = netio_filter_ready(io);
    if (err == 0 && f->held_len) err = sieve_deliver(io, f->held, f->held_len);
    f->held_len = 0;
    return err == 0 && f->ended ? netio_filter_deliver_end(io) : err;
}

static int sieve_received(netio_filter_io *io, const void *data, size_t len)
{
    sieve *f = (sieve *)netio_filter_self(io);
    if (f->kind == FRAGILE && dice(50) == 0) return NETIO_EBADMSG;
    if (f->ready) return sieve_deliver(io, (const unsigned char *)data, len);
    f->held = (unsigned char *)realloc(f->held, f->held_len + len);
    memcpy(f->held + f->held_len, data, len);
    f->held_len += len;
    return 0;
}

static int sieve_ended(netio_filter_io *io)
{
    sieve *f = (sieve *)netio_filter_self(io);
    f->ended = true;
    return f->ready ? netio_filter_deliver_end(io) : 0;
}

static int sieve_written(netio_filter_io *io, const netio_buf *bufs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int err = bufs[i].len ? netio_filter_emit(io, bufs[i].data, bufs[i].len) : 0;
        if (err < 0) return err;
    }
    return 0;
}

static void sieve_close(netio_filter_io *io)
{
    sieve *f = (sieve *)netio_filter_self(io);
    w.filters--;
    free(f->held);
    free(f);
}

static const netio_filter_ops nothing_ops = {.name = "nothing"};
static const netio_filter_ops sieve_ops = {.name = "sieve",
                                           .ref = sieve_ref,
                                           .unref = sieve_unref,
                                           .open = sieve_open,
                                           .received = sieve_received,
                                           .ended = sieve_ended,
                                           .written = sieve_written,
                                           .timer = sieve_timer,
                                           .close = sieve_close};

static netio_filter some_filter(void)
{
    netio_filter f;
    uint32_t kind = dice(8);
    f.ops = kind == 0 ? &nothing_ops : &sieve_ops;
    f.arg = (void *)(intptr_t)(kind == 1 ? FRAGILE : kind < 4 ? SLOW : PLAIN);
    return f;
}

//================================================================================================
// Ends and handles
//================================================================================================

static void random_ops(void);
static void one_op(void);

static end *new_end(int host)
{
    if (w.end_count == ENDS) return NULL;
    end *e = (end *)calloc(1, sizeof *e);
    e->id = w.end_count;
    e->host = host;
    w.ends[w.end_count++] = e;
    return e;
}

static grip *new_grip(end *e)
{
    grip *g = (grip *)calloc(1, sizeof *g);
    g->e = e;
    w.grips[w.grip_count++] = g;
    return g;
}

// `fragile`: its filter may have failed at once, so that on_close is due already; so may memory.
static void has_handle(grip *g, netio_conn c, bool fragile)
{
    g->c = c;
    g->e->c = c;
    HOLD(g->e, netio_conn_user(c) == g, "another user pointer", 0, 0);
    HOLD(g->e, netio_conn_loop(c) == w.loop[g->e->host], "another loop", 0, 0);
    if ((fragile || w.failing) && !netio_conn_alive(c)) g->e->doomed = true;
    else HOLD(g->e, netio_conn_alive(c), "not alive at first", 0, 0);
}

static bool room(void)
{
    int live = 0;
    for (int i = 0; i < w.end_count; i++) live += !w.ends[i]->over;
    return w.end_count + 2 <= ENDS && w.grip_count + 2 <= ENDS && live < LIVE_MAX &&
           !w.winding_down;
}

static end *some_end(void)
{
    for (int tries = 0; tries < 8 && w.end_count > 0; tries++) {
        int span = w.end_count < 40 ? w.end_count : 40; // the younger ones are alive
        end *e = w.ends[w.end_count - 1 - (int)dice((uint32_t)span)];
        if (usable(e) && e->c.ptr) return e;
    }
    return NULL;
}

//================================================================================================
// Callbacks
//================================================================================================

static grip *begin(netio_conn c, const char *what, long long number)
{
    grip *g = (grip *)netio_conn_user(c);
    end *e = g->e;
    enter(e);
    event(what, e->id, number);
    HOLD(e, netio_conn_same(g->c, c), "another handle than before", 0, 0);
    HOLD(e, g->closed == 0, "a callback after on_close", what[0], 0);
    HOLD(e, g->opened || what[0] == 'o' || what[0] == 'c', "a callback before on_open", what[0], 0);
    return g;
}

// Callbacks other than on_close come only while it is usable, also by this program's account.
static end *begin_live(netio_conn c, const char *what, long long number)
{
    grip *g = begin(c, what, number);
    HOLD(g->e, !g->e->closing, "a callback after close", what[0], 0);
    HOLD(g->e, netio_conn_alive(c), "a callback though it is not alive", what[0], 0);
    return g->e;
}

static void opens(grip *g)
{
    end *e = g->e;
    HOLD(e, !g->opened, "on_open twice", 0, 0);
    g->opened = e->opened = true;
}

static void on_open(netio_conn c)
{
    grip *g = begin(c, "open", 0);
    opens(g);
    HOLD(g->e, !g->e->closing, "on_open after close", 0, 0);
    random_ops();
    leave();
}

// The user pointer of an accepted connection is its listener's number until it has an end.
static int listener_numbers[LISTENERS] = {0, 1, 2, 3};

static const netio_handler *some_handler(end *e);

static void accepted_open(netio_conn c)
{
    int number = *(int *)netio_conn_user(c);
    enter(NULL);
    end *e = new_end(netio_conn_loop(c) == w.loop[0] ? 0 : 1);
    if (!e) { // too many: let it go
        CALL(netio_conn_set_handler(c, NULL) < 0 ? 0 : 0);
        CALL(netio_conn_abort(c));
        leave();
        return;
    }
    event("accepted", e->id, number);
    grip *g = new_grip(e);
    netio_conn_set_user(c, g);
    has_handle(g, c, false);
    opens(g);
    HOLD(e, CALL(netio_conn_set_handler(c, some_handler(e))) == 0, "set_handler fails", 0, 0);
    write_hello(e);
    random_ops();
    leave();
}

static void on_data(netio_conn c, const void *data, size_t len)
{
    end *e = begin_live(c, "data", (long long)len);
    size_t kept = e->kept;
    HOLD(e, len > 0, "on_data without bytes", 0, 0);
    HOLD(e, len >= kept || e->refiltered, "what was unread does not come again whole", len, kept);
    HOLD(e, !e->paused, "on_data though it is paused", 0, 0);
    HOLD(e, !e->eof, "on_data after on_eof", 0, 0);
    HOLD(e, !e->joined, "on_data though it is joined", 0, 0);
    HOLD(e, !e->framed, "on_data though it has framing", len, e->framed);
    w.bytes += len;
    e->kept = len < kept ? kept - len : 0;
    e->in_data = true;
    take_in(e, (const unsigned char *)data, len);
    size_t fresh = len < kept ? 0 : len - kept;
    if (e->kept == 0) e->refiltered = false;
    if (e->peer && !e->dropping && !w.winding_down && fresh > 0 && dice(8) == 0) {
        size_t k = dice((uint32_t)(fresh < 60000 ? fresh : 60000) + 1);
        if (k > e->got - HELLO) k = (size_t)(e->got - HELLO);
        int err = CALL(netio_conn_unread(c, k));
        HOLD(e, allowed(err) || (err == NETIO_ENOBUFS && k > 4096), "unread fails", err, k);
        if (err == 0) {
            e->kept = k;
            e->got -= k;
        }
        event("unread", e->id, (long long)k);
    }
    random_ops();
    e->in_data = false;
    leave();
}

static void on_frame(netio_conn c, const netio_frame *frame)
{
    end *e = begin_live(c, "frame", (long long)frame->len);
    HOLD(e, frame->len == e->framed, "a frame of another size", frame->len, e->framed);
    HOLD(e, !e->paused, "on_frame though it is paused", 0, 0);
    HOLD(e, !e->eof, "on_frame after on_eof", 0, 0);
    w.bytes += frame->len;
    e->kept = frame->len < e->kept ? e->kept - frame->len : 0;
    if (e->kept == 0) e->refiltered = false;
    e->in_data = true;
    take_in(e, (const unsigned char *)frame->data, frame->len);
    if (dice(50) == 0) {
        int err = CALL(netio_conn_unread(c, 1));
        HOLD(e, err == NETIO_EINVAL, "unread in on_frame", err, 0);
    }
    random_ops();
    e->in_data = false;
    leave();
}

static void on_drain(netio_conn c)
{
    end *e = begin_live(c, "drain", 0);
    if (usable(e))
        HOLD(e, !netio_conn_congested(c), "on_drain though it is congested", netio_conn_pending(c),
             0);
    random_ops();
    leave();
}

static void on_secure(netio_conn c)
{
    end *e = begin_live(c, "secure", 0);
    HOLD(e, e->filters-- > 0, "on_secure without a filter", 0, 0);
    random_ops();
    leave();
}

// Netio ended it, and says why in on_close, soon or already.
static bool failed(const end *e)
{
    netio_error why;
    if (e->err) return true;
    if (e->over) return false;
    return netio_conn_error(e->c, &why) == 0 || (!e->closing && !netio_conn_alive(e->c));
}

// Its stream may end cleanly before its last byte: it was given up by a filter, or it is one of two
// that were joined and then closed.
static bool ends_anywhere(const end *e)
{
    if (failed(e)) return true;
    if (!e->joined) return false;
    return e->closing || e->shut || e->tail_of->closing || w.finishing || failed(e->tail_of) ||
           ends_anywhere(e->tail_of->peer);
}

static void on_eof(netio_conn c)
{
    end *e = begin_live(c, "eof", 0);
    HOLD(e, !e->eof, "on_eof twice", 0, 0);
    HOLD(e, !e->paused, "on_eof though it is paused", 0, 0);
    e->eof = true;
    const end *p = e->peer;
    if (p && !e->dropping && !e->joined) {
        HOLD(e, ends_anywhere(p) || e->got + e->kept == total(p), "on_eof before the last byte",
             e->got + e->kept, total(p));
        HOLD(e, p->shut || p->closing || p->joined || p->over || w.finishing || failed(p),
             "on_eof though the peer has not ended", p->id, 0);
    }
    if (w.winding_down && usable(e) && CALL(netio_conn_close(c)) == 0) e->closing = true;
    random_ops();
    leave();
}

static void on_timeout(netio_conn c, int which)
{
    end *e = begin_live(c, "timeout", which);
    HOLD(e, which == NETIO_TIMEOUT_IDLE || which == NETIO_TIMEOUT_WRITE, "another timeout", which,
         0);
    if (dice(3) == 0 && usable(e) && CALL(netio_conn_close(c)) == 0) e->closing = true;
    random_ops();
    leave();
}

static void on_stop(netio_conn c)
{
    end *e = begin_live(c, "stop", 0);
    HOLD(e, w.finishing, "on_stop without finish", 0, 0);
    if (dice(4) && usable(e) && CALL(netio_conn_close(c)) == 0) e->closing = true;
    leave();
}

static void check_stale(end *e, netio_conn c);

static void on_close(netio_conn c, int err)
{
    grip *g = begin(c, "close", err);
    end *e = g->e;
    netio_error why;
    netio_stats s;
    g->closed++;
    HOLD(e, err <= 0, "on_close with a positive error", err, 0);
    HOLD(e, !netio_conn_alive(c), "alive in on_close", 0, 0);
    HOLD(e, netio_conn_user(c) == g, "no user pointer in on_close", 0, 0);
    HOLD(e, netio_conn_stats(c, &s) == 0, "no counters in on_close", 0, 0);
    int has = netio_conn_error(c, &why);
    HOLD(e, err == 0 ? has == NETIO_ENOENT : has == 0 && why.err == err, "another error", has, err);
    HOLD(e, netio_conn_write(c, "x", 1) < 0, "a write in on_close", 0, 0);
    if (netio_conn_same(e->c, c)) { // else it was detached, and lives on under another handle
        e->over = true;
        e->err = err;
        HOLD(e, err < 0 || !e->broken, "a broken pipe ends cleanly", 0, 0);
    } else {
        HOLD(e, err == 0, "a detached handle ends with an error", err, 0);
    }
    random_ops();
    leave();
}

#define ALWAYS .on_open = on_open, .on_secure = on_secure, .on_close = on_close
static const netio_handler handlers[] = {
    {ALWAYS, .on_data = on_data, .on_frame = on_frame, .on_drain = on_drain, .on_eof = on_eof,
     .on_timeout = on_timeout, .on_stop = on_stop},
    {ALWAYS, .on_data = on_data, .on_frame = on_frame, .on_drain = on_drain, .on_eof = on_eof,
     .on_timeout = on_timeout, .on_stop = on_stop},
    {ALWAYS, .on_data = on_data, .on_frame = on_frame, .on_drain = on_drain,
     .on_timeout = on_timeout, .on_stop = on_stop},
    {ALWAYS, .on_data = on_data, .on_frame = on_frame, .on_eof = on_eof},
    {ALWAYS, .on_drain = on_drain, .on_eof = on_eof, .on_timeout = on_timeout, .on_stop = on_stop},
};
static const netio_handler accepting = {.on_open = accepted_open, .on_close = on_close};

static const netio_handler *some_handler(end *e)
{
    uint32_t i = dice(20);
    i = i < 14 ? i % 2 : i < 17 ? 2 : i < 19 ? 3 : 4;
    if (w.winding_down) i = 0;
    if (!handlers[i].on_data) {
        e->dropping = true; // from here on nobody knows what it missed
        e->kept = 0;
    }
    return &handlers[i];
}

//================================================================================================
// What can be called
//================================================================================================

static void some_conn_opts(netio_conn_opts *o)
{
    memset(o, 0, sizeof *o);
    o->close_timeout_ms = w.memory ? (int)dice(3000) : 100;
    o->write_timeout_ms = w.memory ? (int)dice(5000) : 500;
    if (dice(4) == 0) o->write_queue_max = 100000 + dice(100000);
    if (dice(4) == 0) o->high_mark = 2000 + dice(60000);
    if (dice(8) == 0) o->read_always = true;
    if (dice(10) == 0) o->idle_timeout_ms = 1 + (int)dice(100);
    if (dice(10) == 0) o->write_rate = 1000000 + dice(10000000);
    if (dice(10) == 0) o->read_rate = 1000000 + dice(10000000);
    if (dice(6) == 0) o->filter = some_filter();
}

static bool is_fragile(const netio_conn_opts *o)
{
    return o->filter.ops == &sieve_ops && o->filter.arg == (void *)(intptr_t)FRAGILE;
}

static void op_dial(void)
{
    netio_dial_opts opts;
    int l = (int)dice(LISTENERS);
    if (!room() || !w.address[l][0]) return;
    int host = (int)dice((uint32_t)w.hosts);
    end *e = new_end(host);
    grip *g = new_grip(e);
    memset(&opts, 0, sizeof opts);
    some_conn_opts(&opts.conn);
    opts.conn.user = g;
    opts.timeout_ms = w.memory ? 1 + (int)dice(5000) : 5000;
    netio_conn c;
    int err = CALL(netio_conn_dial(&c, w.loop[host], w.address[l], some_handler(e), &opts));
    event("dial", e->id, err);
    HOLD(e, allowed(err), "dial fails", err, l);
    if (err < 0) {
        e->over = true;
        g->closed = 1; // none to come
        return;
    }
    has_handle(g, c, is_fragile(&opts.conn));
    write_hello(e);
}

static void op_pair(void)
{
    netio_pair_opts opts;
    netio_conn c[2];
    if (!room()) return;
    int host = (int)dice((uint32_t)w.hosts);
    memset(&opts, 0, sizeof opts);
    some_conn_opts(&opts.a);
    some_conn_opts(&opts.b);
    opts.link.latency_ms = (int)dice(10);
    if (dice(3) == 0) opts.link.piece_max = 1 + dice(3000);
    if (dice(3) == 0) opts.link.send_max = 1 + dice(3000);
    if (dice(3) == 0) opts.link.window = 1000 + dice(100000);
    if (dice(20) == 0) opts.link.reset_at = dice(100000);
    end *a = new_end(host), *b = new_end(host);
    grip *ga = new_grip(a), *gb = new_grip(b);
    opts.a.user = ga;
    opts.b.user = gb;
    const netio_handler *ha = some_handler(a), *hb = some_handler(b);
    int err = CALL(netio_conn_pair(c, w.loop[host], ha, hb, &opts));
    event("pair", a->id, err);
    HOLD(a, allowed(err), "pair fails", err, 0);
    if (err < 0) {
        a->over = b->over = true;
        ga->closed = gb->closed = 1;
        return;
    }
    a->pair = b->pair = true;
    has_handle(ga, c[0], is_fragile(&opts.a));
    has_handle(gb, c[1], is_fragile(&opts.b));
    write_hello(a);
    write_hello(b);
}

// A write was refused or taken; it is never both, and never stopped half-way.
static void wrote(end *e, int err, uint64_t len, size_t pending)
{
    event("write", e->id, err < 0 ? err : (long long)len);
    if (err == 0) {
        HOLD(e, !e->shut, "a write after shutdown", 0, 0);
        e->taken += len;
        return;
    }
    if (gone(e, err)) return;
    if (!netio_conn_alive(e->c)) {
        e->torn = len;
        e->doomed = true;
        return;
    }
    if (err == NETIO_EPIPE) { // the peer takes no more; what it sent before can still be read
        e->broken = e->broken || !e->shut;
        return;
    }
    if (e->shut) {
        HOLD(e, allowed(err), "another error after shutdown", err, 0);
        return;
    }
    if (err == NETIO_ENOBUFS) {
        HOLD(e, pending > 0, "an empty queue refuses a write", len, 0);
        return;
    }
    HOLD(e, allowed(err), "a write fails", err, len);
}

static bool may_write(const end *e)
{
    return usable(e) && !e->joined && !e->refused && e->taken >= HELLO && w.bytes < 8000000;
}

static void op_write(end *e)
{
    size_t len = some_size(PERIOD * 4), pending = netio_conn_pending(e->c);
    wrote(e, CALL(netio_conn_write(e->c, bytes_at(e, e->taken), len)), len, pending);
}

static void op_writev(end *e)
{
    netio_buf bufs[6];
    size_t count = dice(7), sum = 0, pending = netio_conn_pending(e->c);
    for (size_t i = 0; i < count; i++) {
        bufs[i].len = dice(4) ? some_size(PERIOD) : 0;
        bufs[i].data = bufs[i].len ? bytes_at(e, e->taken + sum) : NULL;
        sum += bufs[i].len;
    }
    wrote(e, CALL(netio_conn_writev(e->c, bufs, count)), sum, pending);
}

static void release_owned(void *user)
{
    owned *o = (owned *)user;
    enter(NULL);
    HOLD(NULL, memcmp(o->data, o->want, o->len) == 0, "owned memory was changed", o->len, 0);
    memset(o->data, 0xDD, o->len);
    free(o);
    w.owned--;
    if (dice(4) == 0) random_ops();
    leave();
}

static void op_write_owned(end *e)
{
    size_t len = some_size(PERIOD * 4), pending = netio_conn_pending(e->c);
    owned *o = (owned *)malloc(sizeof *o + len);
    o->len = len;
    o->want = bytes_at(e, e->taken);
    memcpy(o->data, o->want, len);
    w.owned++;
    int err = CALL(netio_conn_write_owned(e->c, o->data, len, release_owned, o));
    wrote(e, err, len, pending);
    if (err < 0) { // still ours
        free(o);
        w.owned--;
    }
}

static void release_file(void *user)
{
    (void)user;
    enter(NULL);
    w.owned--;
    leave();
}

static void op_write_file(end *e)
{
    size_t len = some_size(PERIOD * 4), pending = netio_conn_pending(e->c);
    uint64_t off = (uint64_t)(bytes_at(e, e->taken) - pattern);
    w.owned++;
    int err = CALL(netio_conn_write_file(e->c, w.handle, off, len, release_file, NULL));
    if (err < 0) w.owned--;
    wrote(e, err, len, pending);
}

static void op_send_frame(end *e)
{
    size_t len = e->framed ? e->framed : some_size(PERIOD), pending = netio_conn_pending(e->c);
    wrote(e, CALL(netio_conn_send(e->c, bytes_at(e, e->taken), len)), len, pending);
}

static void op_send(end *e)
{
    if (!may_write(e)) return;
    switch (dice(8)) {
    case 0: op_writev(e); break;
    case 1: op_write_owned(e); break;
    case 2: op_write_file(e); break;
    case 3: op_send_frame(e); break;
    default: op_write(e);
    }
    if (usable(e) && dice(6) == 0) gone(e, CALL(netio_conn_flush(e->c)));
}

static void op_end(end *e)
{
    uint32_t how = dice(8);
    int err;
    if (how < 3) {
        err = CALL(netio_conn_shutdown(e->c));
        event("shutdown", e->id, err);
        if (gone(e, err)) return;
        HOLD(e, allowed(err) || (e->shut && err == NETIO_EPIPE), "shutdown fails", err, 0);
        e->shut = e->shut || err == 0;
        return;
    }
    err = how < 6 ? CALL(netio_conn_close(e->c)) : CALL(netio_conn_abort(e->c));
    event(how < 6 ? "Close" : "abort", e->id, err);
    if (gone(e, err)) return;
    HOLD(e, allowed(err), "close fails", err, how);
    if (err < 0) return;
    e->closing = true;
    e->aborted = how >= 6;
    check_stale(e, e->c);
}

// Nothing can be done with a handle that has closed.
static void check_stale(end *e, netio_conn c)
{
    netio_buf none = {"x", 1};
    int errs[] = {
        CALL(netio_conn_write(c, "x", 1)),
        CALL(netio_conn_writev(c, &none, 1)),
        CALL(netio_conn_write_owned(c, "x", 1, release_file, NULL)),
        CALL(netio_conn_write_file(c, w.handle, 0, 1, release_file, NULL)),
        CALL(netio_conn_flush(c)),
        CALL(netio_conn_pause(c)),
        CALL(netio_conn_resume(c)),
        CALL(netio_conn_shutdown(c)),
        CALL(netio_conn_close(c)),
        CALL(netio_conn_abort(c)),
        CALL(netio_conn_set_handler(c, &handlers[0])),
        CALL(netio_conn_set_timeout(c, NETIO_TIMEOUT_IDLE, 5)),
        CALL(netio_conn_set_rate(c, 1, 1)),
        CALL(netio_conn_set_marks(c, 2, 1, 3)),
    };
    HOLD(e, !netio_conn_alive(c), "alive though it is closed", 0, 0);
    for (size_t i = 0; i < sizeof errs / sizeof errs[0]; i++)
        HOLD(e, errs[i] == NETIO_ESTALE, "a call on a closed handle", i, errs[i]);
}

static void op_stale(void)
{
    netio_stats s;
    if (w.grip_count == 0) return;
    const grip *g = w.grips[dice((uint32_t)w.grip_count)];
    if (!g->closed || !g->c.ptr) return;
    check_stale(g->e, g->c);
    if (w.callback) return; // its own on_close may be running: then it can be asked
    HOLD(g->e, netio_conn_user(g->c) == NULL, "a user pointer of a stale handle", 0, 0);
    HOLD(g->e, netio_conn_loop(g->c) == NULL, "a loop of a stale handle", 0, 0);
    HOLD(g->e, netio_conn_stats(g->c, &s) == NETIO_ESTALE, "counters of a stale handle", 0, 0);
    HOLD(g->e, netio_conn_pending(g->c) == 0, "bytes of a stale handle", 0, 0);
}

static void op_pause(end *e)
{
    if (e->joined) return;
    bool on = dice(3) == 0;
    int err = on ? CALL(netio_conn_pause(e->c)) : CALL(netio_conn_resume(e->c));
    event(on ? "pause" : "resume", e->id, err);
    if (gone(e, err)) return;
    HOLD(e, err == 0, "pause fails", err, on);
    e->paused = on;
}

static void op_settings(end *e)
{
    size_t high = 1 + dice(100000), low = dice((uint32_t)high + 1), max = high + dice(500000);
    int err = 0;
    switch (dice(6)) {
    case 0: err = CALL(netio_conn_set_handler(e->c, some_handler(e))); break;
    case 1: err = CALL(netio_conn_set_timeout(e->c, NETIO_TIMEOUT_IDLE, (int)dice(50) - 1)); break;
    case 2:
        err = CALL(netio_conn_set_timeout(e->c, NETIO_TIMEOUT_WRITE, 200 + (int)dice(1000)));
        break;
    case 3:
        err = CALL(netio_conn_set_rate(e->c, dice(2) ? 0 : 500000 + dice(5000000),
                                       dice(2) ? 0 : 500000 + dice(5000000)));
        break;
    case 4: err = CALL(netio_conn_set_marks(e->c, high, low, max)); break;
    default:
        err = CALL(netio_conn_set_marks(e->c, high, high + 1, max));
        if (gone(e, err)) return;
        HOLD(e, err == NETIO_EINVAL, "a low mark above the high one", err, 0);
        return;
    }
    event("set", e->id, err);
    if (!gone(e, err)) HOLD(e, allowed(err), "a setting fails", err, 0);
}

// Frames without a header carry the same bytes, in order.
static void op_framing(end *e)
{
    netio_framing framing;
    memset(&framing, 0, sizeof framing);
    if (e->joined) return;
    if (dice(3)) framing = netio_framing_fixed(20 + some_size(3000));
    int err = CALL(netio_conn_set_framing(e->c, framing));
    event("framing", e->id, err < 0 ? err : (long long)framing.max);
    if (gone(e, err)) return;
    HOLD(e, allowed(err) || (e->eof && err == NETIO_EOF), "set_framing fails", err, 0);
    if (err < 0) return;
    e->framed = framing.format ? framing.max : 0;
    if (e->kept) e->refiltered = true;
}

static void op_filter(end *e)
{
    if (e->joined || e->filters > 3) return;
    int err = CALL(netio_conn_add_filter(e->c, some_filter()));
    event("filter", e->id, err);
    if (gone(e, err)) return;
    HOLD(e, allowed(err) || err == NETIO_EPROTO || err == NETIO_EPIPE || err == NETIO_EBUSY,
         "add_filter fails", err, 0);
    if (err == 0) e->filters++;
    if (err == 0 && e->kept) e->refiltered = true;
    if (err == NETIO_EPROTO) e->doomed = true; // FRAGILE: it may have ended
}

static void op_join(end *a)
{
    end *b = some_end();
    if (!b || b == a || a->host != b->host || a->joined || b->joined) return;
    if (!a->opened || !b->opened || a->dropping || b->dropping || a->in_data || b->in_data) return;
    if (a->framed || b->framed) return;
    if (a->paused || b->paused || a->shut || b->shut || a->eof || b->eof) return;
    if (!a->peer || !b->peer || a->peer == b || !b->peer->peer || !a->peer->peer) return;
    if (a->peer->joined || b->peer->joined) return; // a ring would never end
    int err = CALL(netio_conn_relay(a->c, b->c));
    event("join", a->id, err < 0 ? err : b->id);
    if (err == NETIO_ESTALE) return; // one of them is doomed, and nobody says which
    HOLD(a, allowed(err), "relay fails", err, b->id);
    if (err < 0) return;
    a->joined = b->joined = true;
    a->tail_of = b; // a sends what b takes in
    a->tail_at = a->taken;
    a->tail_got = b->got;
    b->tail_of = a;
    b->tail_at = b->taken;
    b->tail_got = a->got;
}

// Out of the loop and back into it, under a new handle.
static void op_detach(end *e)
{
    static unsigned char unread[300000];
    netio_conn_opts opts;
    netio_socket s;
    netio_conn old = e->c;
    if (e->joined || e->in_data || !e->opened || e->eof || e->shut) return;
    if (!e->peer || w.grip_count + 2 > ENDS) return;
    w.calling++;
    ptrdiff_t n = netio_conn_detach(e->c, &s, unread, sizeof unread);
    w.calling--;
    event("detach", e->id, n);
    if (n < 0) {
        if (gone(e, (int)n)) return;
        HOLD(e, n == NETIO_EBUSY || n == NETIO_ENOSPC || n == NETIO_ENOTSUP || allowed((int)n),
             "detach fails", n, 0);
        HOLD(e, n != NETIO_ENOTSUP || w.memory || e->pair, "detach is not supported", n, 0);
        return;
    }
    HOLD(e, !w.memory && !e->pair, "detach in memory", 0, 0);
    HOLD(e, n >= (ptrdiff_t)e->kept, "detach loses what was unread", n, e->kept);
    if (!e->dropping) check_bytes(e, unread, (size_t)n);
    e->kept = 0;
    grip *g = new_grip(e);
    some_conn_opts(&opts);
    memset(&opts.filter, 0, sizeof opts.filter);
    opts.user = g;
    opts.unread = unread;
    opts.unread_len = (size_t)n;
    netio_conn c;
    int err = CALL(netio_conn_adopt(&c, w.loop[e->host], s, some_handler(e), &opts));
    event("adopt", e->id, err);
    HOLD(e, allowed(err) || err == NETIO_ENOTCONN, "adopt fails", err, 0); // it was reset
    if (err < 0) { // the socket is ours again; its end is this program's doing
        g->closed = 1;
        e->closing = e->aborted = e->over = true;
        e->err = NETIO_ECONNABORTED;
        e->c.ptr = NULL;
        HOLD(e, netio_close(&s) == 0, "the socket is not open", 0, 0);
        return;
    }
    e->opened = e->paused = false;
    e->framed = 0;
    has_handle(g, c, false);
    check_stale(e, old);
}

typedef struct census {
    int host, seen;
    unsigned char times[ENDS];
} census;

static void visit(void *user, netio_conn c)
{
    census *s = (census *)user;
    const grip *g = (const grip *)netio_conn_user(c);
    w.calling--; // visits are callbacks of this call
    if (g && !(g >= (grip *)(void *)listener_numbers &&
               g < (grip *)(void *)(listener_numbers + LISTENERS))) {
        HOLD(g->e, netio_conn_same(c, g->c), "visited under another handle", 0, 0);
        HOLD(g->e, g->closed == 0, "visited after on_close", 0, 0);
        HOLD(g->e, g->e->host == s->host, "visited by another loop", 0, 0);
        HOLD(g->e, ++s->times[g->e->id] == 1, "visited twice", 0, 0);
        s->seen++;
    }
    if (dice(4) == 0 && w.ops > 0) one_op();
    w.calling++;
}

static void op_each(void)
{
    static census s;
    static netio_conn was[ENDS]; // the handle, if it is to be visited
    static bool inside;
    if (inside) return;
    memset(&s, 0, sizeof s);
    s.host = (int)dice((uint32_t)w.hosts);
    int count = w.end_count;
    for (int i = 0; i < count; i++) {
        const end *e = w.ends[i];
        was[i] = e->c;
        if (!usable(e) || !e->opened || e->host != s.host) was[i].ptr = NULL;
    }
    inside = true;
    w.calling++;
    netio_conn_each(w.loop[s.host], visit, &s);
    w.calling--;
    inside = false;
    event("each", 0, s.seen);
    for (int i = 0; i < count; i++)
        if (was[i].ptr && usable(w.ends[i]) && netio_conn_alive(was[i]))
            HOLD(w.ends[i], s.times[i] == 1, "not visited", s.times[i], 0);
}

static void timer_task(void *user)
{
    enter(NULL);
    event("timer", *(int *)user, 0);
    random_ops();
    leave();
}

static void post_task(void *user)
{
    enter(NULL);
    event("post", user ? 1 : 0, 0);
    random_ops();
    leave();
}

static void post_drop(void *user)
{
    enter(NULL);
    event("drop", user ? 1 : 0, 0);
    leave();
}

static int timer_numbers[TIMERS] = {0, 1, 2, 3, 4, 5, 6, 7};

static void op_time(void)
{
    int i = (int)dice(TIMERS), err = 0;
    netio_loop *loop = w.loop[dice((uint32_t)w.hosts)];
    switch (dice(5)) {
    case 0: netio_timer_stop(w.timer[i]); break;
    case 1:
        err = CALL(netio_timer_reset(w.timer[i], (int)dice(20)));
        if (err == NETIO_ESTALE) err = 0;
        break;
    case 2: err = CALL(netio_loop_post(loop, post_task, post_drop, "copy", dice(2) ? 5 : 0)); break;
    default:
        netio_timer_stop(w.timer[i]);
        err = CALL(
            netio_timer_once(&w.timer[i], loop, (int)dice(30) - 2, timer_task, &timer_numbers[i]));
    }
    HOLD(NULL, allowed(err), "a timer or post fails", err, 0);
}

static bool choose(void *user, const netio_addr *peer)
{
    (void)user, (void)peer;
    return dice(10) != 0;
}

static void refused(void *user, const netio_addr *peer, const netio_error *why)
{
    (void)peer;
    enter(NULL);
    event("refused", *(int *)user, why ? why->err : 0);
    leave();
}

static void op_listener(int i)
{
    netio_listener_opts opts;
    netio_addr a;
    char text[64];
    if (w.listening[i]) {
        int err = 0;
        switch (dice(6)) {
        case 0:
            netio_listener_close(w.listener[i]);
            w.listening[i] = false;
            HOLD(NULL, netio_listener_pause(w.listener[i]) == NETIO_ESTALE, "a closed listener", i,
                 0);
            break;
        case 1: err = CALL(netio_listener_pause(w.listener[i])); break;
        case 2: err = CALL(netio_listener_set_filter(w.listener[i], some_filter())); break;
        default: err = CALL(netio_listener_resume(w.listener[i]));
        }
        event("listener", i, err);
        HOLD(NULL, allowed(err), "a listener fails", err, i);
        return;
    }
    if (w.winding_down) return;
    memset(&opts, 0, sizeof opts);
    some_conn_opts(&opts.conn);
    opts.conn.user = &listener_numbers[i];
    if (dice(3) == 0) opts.conn_max = 1 + dice(8);
    if (dice(2) == 0) opts.refusal = "Refused\n";
    if (dice(3) == 0) opts.on_accept = choose;
    opts.on_refused = refused;
    int host = (int)dice((uint32_t)w.hosts);
    snprintf(text, sizeof text, "%s:0", host == 0 ? "127.0.0.1" : "10.0.0.2");
    int err = CALL(netio_listener_open(&w.listener[i], w.loop[host], text, &accepting, &opts));
    event("listen", i, err);
    HOLD(NULL, allowed(err), "listen fails", err, i);
    if (err < 0) return;
    w.listening[i] = true;
    HOLD(NULL, netio_listener_addr(w.listener[i], &a) == 0, "no address", i, 0);
    netio_addr_format(&a, w.address[i], sizeof w.address[i]);
}

// In memory: another weather.
static void op_link(void)
{
    netio_link link;
    if (!w.network) return;
    memset(&link, 0, sizeof link);
    if (!w.winding_down) {
        if (dice(2) == 0) link.latency_ms = (int)dice(50);
        if (dice(3) == 0) link.piece_max = 1 + dice(5000);
        if (dice(3) == 0) link.send_max = 1 + dice(5000);
        if (dice(3) == 0) link.window = 100 + dice(100000);
        if (dice(6) == 0) link.bandwidth = 10000 + dice(1000000);
        if (dice(12) == 0) link.reset_at = dice(200000);
        if (dice(12) == 0) link.cut = true;
    }
    int err = CALL(netio_network_link(w.network, NULL, NULL, &link));
    event("link", 0, err);
    HOLD(NULL, allowed(err), "link fails", err, 0);
}

static void one_op(void)
{
    end *e = some_end();
    w.ops--;
    if (w.failing && dice(6) == 0) test_alloc_fail_at(1 + (long)dice(6));
    uint32_t d = dice(100);
    if (d < 10 || !e) op_dial();
    else if (d < 12) op_pair();
    else if (d < 55) op_send(e);
    else if (d < 60) op_end(e);
    else if (d < 70) op_pause(e);
    else if (d < 76) op_settings(e);
    else if (d < 78) op_filter(e);
    else if (d < 79) op_framing(e);
    else if (d < 80) op_join(e);
    else if (d < 82) op_detach(e);
    else if (d < 84) op_each();
    else if (d < 91) op_time();
    else if (d < 94) op_stale();
    else if (d < 98) op_listener((int)dice(LISTENERS));
    else op_link();
    test_alloc_fail_at(0);
}

static void random_ops(void)
{
    if (w.ops <= 0 || w.quiet) return;
    for (uint32_t n = dice(4); n > 1; n--) one_op();
}

//================================================================================================
// One seed
//================================================================================================

static void open_world(uint32_t seed, bool memory)
{
    netio_network_opts net;
    netio_loop_opts opts;
    FILE *file = w.file;
    netio_file handle = w.handle;
    bool trace = w.trace;
    memset(&w, 0, sizeof w);
    w.file = file;
    w.handle = handle;
    w.trace = trace;
    w.seed = seed;
    w.random = seed * 2654435761u + 97;
    w.hash = 14695981039346656037u;
    w.memory = memory;
    w.hosts = memory ? HOSTS : 1;
    w.failing = seed % 4 == 3;
    memset(&opts, 0, sizeof opts);
    if (memory) {
        memset(&net, 0, sizeof net);
        net.seed = seed;
        if (test_rough()) {
            net.link.latency_ms = 3;
            net.link.piece_max = 1500;
            net.link.send_max = 3000;
        }
        CHECK_OK(netio_network_create(&w.network, &net));
        opts.network = w.network;
    } else {
        opts.backend = test_backend();
    }
    for (int i = 0; i < w.hosts; i++) {
        opts.host = i ? "10.0.0.2" : NULL;
        if (seed % 3 == 0) opts.recv_buffer = 4096 + dice(60000);
        if (seed % 5 == 0) opts.turn_budget = 1 + dice(100000);
        CHECK_OK(netio_loop_create(&w.loop[i], &opts));
    }
}

static void pump(int ms)
{
    int err;
    if (w.memory && dice(2)) err = netio_network_run(w.network, ms);
    else err = netio_loop_run_once(w.loop[dice((uint32_t)w.hosts)], ms);
    HOLD(NULL, err >= 0, "the loop fails", err, 0);
    HOLD(NULL, w.callback == 0 && w.calling == 0, "out of balance", w.callback, w.calling);
}

static bool all_over(void)
{
    for (int i = 0; i < w.grip_count; i++)
        if (!w.grips[i]->closed) return false;
    return true;
}

// Ends everything by the usual calls; then everything must end by itself.
static void wind_down(bool finish)
{
    w.winding_down = true;
    op_link();
    for (int i = 0; i < LISTENERS; i++) {
        if (w.listening[i] && !finish) netio_listener_close(w.listener[i]);
        w.listening[i] = w.listening[i] && finish;
    }
    for (int i = 0; i < TIMERS; i++) netio_timer_stop(w.timer[i]);
    for (int i = 0; i < w.end_count; i++) {
        end *e = w.ends[i];
        if (!usable(e) || !e->c.ptr) continue;
        gone(e, CALL(netio_conn_set_handler(e->c, &handlers[0])));
        if (!usable(e)) continue;
        HOLD(e, allowed(CALL(netio_conn_set_rate(e->c, 0, 0))), "set_rate fails", 0, 0);
        if (!e->joined) HOLD(e, CALL(netio_conn_resume(e->c)) == 0, "resume fails", 0, 0);
        e->paused = false;
        if (!finish && !e->joined && dice(2)) {
            int err = CALL(netio_conn_shutdown(e->c));
            HOLD(e, err == 0 || err == NETIO_EPIPE, "shutdown fails", err, 0);
            e->shut = true;
        }
        if (!finish && (e->joined || !e->shut || e->eof)) {
            HOLD(e, CALL(netio_conn_close(e->c)) == 0, "close fails", 0, 0);
            e->closing = true;
        }
    }
    w.finishing = finish;
    for (int i = 0; i < w.hosts && finish; i++)
        netio_loop_finish(w.loop[i], (w.memory ? 200 : 20) + (int)dice(w.memory ? 2000 : 100));
    w.quiet = true;
    uint64_t limit = test_ms() + 15000, loop_limit = netio_loop_now_ms(w.loop[0]) + 120000;
    while (!all_over()) {
        pump(100);
        if (test_ms() < limit && netio_loop_now_ms(w.loop[0]) < loop_limit) continue;
        for (int i = 0; i < w.grip_count; i++)
            HOLD(w.grips[i]->e, w.grips[i]->closed, "it never ends", w.grips[i]->opened,
                 w.grips[i]->e->closing);
    }
}

// What left one end came out at the other, or somebody was told.
static void check_end(const end *x)
{
    const end *y = x->peer;
    if (!y || y->joined || y->refused || x->refused) return;
    uint64_t got = y->got + y->kept;
    HOLD(y, got <= total(x) + torn(x), "more came than was sent", got, total(x));
    if (got >= total(x) || x->joined) return;
    HOLD(x, x->err || y->err || y->closing || y->dropping || w.finishing,
         "bytes are missing and nobody was told", total(x), got);
}

static void close_world(void)
{
    for (int i = 0; i < w.hosts; i++) {
        int err = netio_loop_destroy(w.loop[i]);
        HOLD(NULL, err == 0, "destroy fails", err, 0);
    }
    if (w.network) HOLD(NULL, netio_network_destroy(w.network) == 0, "still in use", 0, 0);
    for (int i = 0; i < w.grip_count; i++)
        HOLD(w.grips[i]->e, w.grips[i]->closed == 1, "on_close ran so many times",
             w.grips[i]->closed, w.grips[i]->opened);
    for (int i = 0; i < w.end_count; i++) check_end(w.ends[i]);
    HOLD(NULL, w.owned == 0, "owned memory that was not released", w.owned, 0);
    HOLD(NULL, w.filters == 0, "filters that were not closed", w.filters, 0);
    HOLD(NULL, w.filter_refs == 0, "filters that are still held", w.filter_refs, 0);
    for (int i = 0; i < w.end_count; i++) free(w.ends[i]);
    for (int i = 0; i < w.grip_count; i++) free(w.grips[i]);
}

static void run_seed(uint32_t seed, bool memory)
{
    int descriptors = memory ? 0 : test_descriptors();
    long blocks = test_blocks();
    open_world(seed, memory);
    uint32_t steps = 20 + dice(80);
    w.ops = memory ? 300 : 250;
    for (uint32_t i = 0; i < LISTENERS / 2; i++) op_listener((int)i);
    for (uint32_t step = 0; step < steps; step++) {
        for (uint32_t n = dice(5); n > 0 && w.ops > 0; n--) one_op();
        pump(memory ? (int)dice(30) : (int)dice(3));
    }
    switch (dice(4)) {
    case 0: break; // the loop ends in the middle of it
    case 1: wind_down(true); break;
    default: wind_down(false);
    }
    w.quiet = w.winding_down = true;
    close_world();
    HOLD(NULL, test_blocks() == blocks, "blocks of memory are left", test_blocks(), blocks);
    if (!memory)
        HOLD(NULL, test_descriptors() == descriptors, "descriptors are left", test_descriptors(),
             descriptors);
}

//================================================================================================
// The tests
//================================================================================================

static void open_file(void)
{
    fill_pattern();
    w.file = fopen(test_path("pattern"), "wb+");
    CHECK(w.file != NULL);
    CHECK_EQ(sizeof pattern, fwrite(pattern, 1, sizeof pattern, w.file));
    CHECK_EQ(0, fflush(w.file));
#ifdef _WIN32
    w.handle = (netio_file)_get_osfhandle(_fileno(w.file));
#else
    w.handle = fileno(w.file);
#endif
}

static void close_file(void)
{
    fclose(w.file);
    w.file = NULL;
}

// How many seeds: NETIO_SEEDS, or as many as are done in a moment.
static uint32_t seeds(uint32_t usual)
{
    const char *text = getenv("NETIO_SEEDS");
    if (text) return (uint32_t)strtoul(text, NULL, 10);
    if (test_soak()) return 10000;
    if (test_under("valgrind") || test_under("qemu") || test_under("wine")) return usual / 20 + 3;
    return test_under("sanitizer") ? usual / 4 + 3 : usual;
}

static void run_seeds(uint32_t count, bool memory)
{
    const char *text = getenv("NETIO_SEED");
    uint64_t events = 0, bytes = 0, limit = test_ms() + 8000;
    uint32_t done = 0;
    open_file();
    w.trace = text != NULL;
    if (text) {
        run_seed((uint32_t)strtoul(text, NULL, 10), memory);
    } else {
        for (; done < count; done++) {
            if (test_ms() > limit && !getenv("NETIO_SEEDS") && !test_soak()) break;
            run_seed(done + 1, memory);
            events += w.events;
            bytes += w.bytes;
        }
        CHECK(done > 2);
        CHECK(events > 50u * (uint64_t)done); // it is not idle
        printf("    %lu seeds, %lu events, %lu MB\n", (unsigned long)done, (unsigned long)events,
               (unsigned long)(bytes / 1000000));
    }
    w.trace = false;
    close_file();
}

TEST(conn_random, calls_in_any_order_keep_every_promise)
{
    run_seeds(seeds(test_in_memory() ? 400 : 60), test_in_memory());
}

TEST(conn_random, in_memory_one_seed_is_one_order_of_events)
{
    uint64_t hash, events;
    uint32_t count = seeds(test_in_memory() ? 100 : 40);
    if (count > 500) count = 500;
    open_file();
    for (uint32_t seed = 1; seed <= count; seed++) {
        run_seed(seed, true);
        hash = w.hash;
        events = w.events;
        run_seed(seed, true);
        HOLD(NULL, w.events == events && w.hash == hash, "another order of events", w.events,
             events);
    }
    close_file();
}

TEST_MAIN("conn_random", T(conn_random, calls_in_any_order_keep_every_promise),
          T(conn_random, in_memory_one_seed_is_one_order_of_events))
