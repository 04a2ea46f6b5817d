// Channels: many byte streams in one connection, none of which can stall the others. No sockets in
// here: frames that arrived go in one by one, frames to send come out by a callback.
//
//     opts.conn.framing = channels_framing(CHANNELS_CREDIT);    // of the connection
//
//     static int emit(void *user, const netio_frame *f) { return netio_conn_send_frame(c, f); }
//     static void on_frame(netio_conn c, const netio_frame *frame)
//     {
//         channels_event e;
//         int err = channels_input(m, frame, &e);
//         if (err == 0 && e.type == CHANNELS_DATA) {            // see the other events below
//             netio_buf piece = channels_front(m, e.id);
//             channels_drop(m, e.id, use(piece));               // what was used up, not more
//         }
//         if (err == 0) err = channels_keep(m);                 // the frame's memory ends here
//         if (err < 0) netio_conn_abort(c);                     // channels_why(m) says why
//     }
//
// A frame is a channel (u16), a length (u16), and a payload of 0 to 65,535 bytes; all numbers are
// in network order. There are three modes, and both ends must agree on one:
//
//   CREDIT  Channel 0 is for control. A channel is a byte stream each way. What arrives is kept
//           until it is read, and the sender may send no more than the window that it was given, so
//           a channel that is not read costs one window of memory, and nobody else waits for it.
//   BARE    No control: both ends know the channels (0 to 65,535) beforehand. Frames are messages.
//           At most CHANNELS_QUEUE of a channel are kept; then, and for channels that were not
//           added, what comes is dropped and counted, as nobody can be told.
//   TEXT    Bare, as lines "id:data" for people: data may hold colons, no line feed. Lines that are
//           none are ignored and counted.
//
// Control frames are a type (u8) and a channel (u16), then:
//
//     1 OPEN    window (u32), then a label of 0 to CHANNELS_LABEL_MAX bytes: what it is for
//     2 ACCEPT  window (u32)
//     3 CREDIT  so many bytes more than before (u32), as so many were read
//     4 END     no data follows; the other direction goes on
//     5 CLOSE   0: both directions have ended; else why not, a NETIO_E* without its sign (u16)
//     6 PING, 7 PONG, the answer: without a channel
//
// Who made the connection opens odd numbers, the other end even ones, so that they cannot meet. No
// data flows before ACCEPT. Each end says CLOSE exactly once about a channel, refusals included;
// when both have, no word about it can be under way any more, and its number may be used again.
//
// Everything is bounded: channels by `max`, what waits in one by `window`, labels, frames. A peer
// that breaks a rule is NETIO_EPROTO from then on. Control frames need room in the connection's
// queue whatever its state: read on while it is congested (read_always), and send no data then.
// Nothing is shared and there is no clock: one thread at a time. Errors are netio's; outputs are
// written on success only.
#ifndef CHANNELS_H
#define CHANNELS_H

#include "../../netio.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS_CREDIT, CHANNELS_BARE, CHANNELS_TEXT }; // modes

enum {
    CHANNELS_PAYLOAD_MAX = 65535,
    CHANNELS_PIECE = 16380,       // data of one frame that is made here: with its header it fills
                                  // one TLS record
    CHANNELS_LABEL_MAX = 512,     // bytes
    CHANNELS_QUEUE = 10,          // BARE: frames kept of one channel
    CHANNELS_CREDIT_MAX = 1 << 30 // bytes that may be outstanding
};

typedef struct channels channels;

typedef struct channels_opts {
    int mode;      // CHANNELS_CREDIT, ...
    bool dialed;   // this end made the connection
    size_t window; // bytes a channel's peer may send before they were read; 0: 256 KiB
    size_t max;    // channels at once, of both ends, those that close included; 0: 256
    // Send a frame: take it whole, copying it, and return 0. For data NETIO_ENOBUFS means not now;
    // all else, and any error for a control frame (frame->header[0] and [1] are 0), is the end.
    int (*emit)(void *user, const netio_frame *frame);
    void *user; // for emit
} channels_opts;

enum {
    CHANNELS_OPEN = 1, // the peer wants a channel: channels_accept or _close. `label` is lent
    CHANNELS_ACCEPTED, // one that was opened here
    CHANNELS_DATA,     // bytes came: `len`; read them with channels_front
    CHANNELS_CREDITED, // channels_send works again after it took less than all
    CHANNELS_ENDED,    // no more data will come; channels_ended says when all was read
    CHANNELS_CLOSED,   // refused or given up by the peer, for `err`; the channel is gone
    CHANNELS_PONG      // the answer to channels_ping
};

typedef struct channels_event {
    int type;        // CHANNELS_*; 0: nothing that matters here
    uint16_t id;     // channel
    int err;         // CLOSED: NETIO_E*, or a negative number of the peer's own
    size_t len;      // DATA
    netio_buf label; // OPEN
    void *user;      // of the channel
} channels_event;

typedef struct channels_stats {
    uint64_t frames_in, frames_out;
    uint64_t unknown;   // BARE: frames dropped, of channels that were not added
    uint64_t full;      // BARE: frames dropped, as CHANNELS_QUEUE waited
    uint64_t bad_lines; // TEXT: lines ignored
    uint64_t refused;   // CREDIT: channels of the peer's that were above `max`
    uint64_t late;      // CREDIT: data for channels that were closed here meanwhile
    size_t open;        // channels now, those that close included
} channels_stats;

// The framing that a connection or decoder needs for a mode.
static inline netio_framing channels_framing(int mode);

// Gives channels; channels_destroy frees them, without a word to the peer. Copies `opts`.
// Returns 0; NETIO_EINVAL (mode, no emit, a window above CHANNELS_CREDIT_MAX, `max` above 65,536),
// NETIO_ENOMEM.
static inline int channels_create(channels **out, const channels_opts *opts);
static inline void channels_destroy(channels *m); // NULL: nothing

// A frame that arrived, as the decoder gives it. Its payload is borrowed until channels_keep, which
// copies what was not read; call that before the frame's memory goes.
//
// Returns  0 with an event; NETIO_ENOBUFS (BARE: the channel's queue is full; dropped, go on);
//          NETIO_EBUSY (keep was forgotten), NETIO_EINVAL (not of channels_framing). What follows
//          is the end of all channels, and stays: NETIO_EPROTO, NETIO_ENOMEM, what emit said
static inline int channels_input(channels *m, const netio_frame *frame, channels_event *out);
static inline int channels_keep(channels *m);

// Open a channel; ACCEPTED or CLOSED follows. `label` is copied.
// Returns 0; NETIO_EBUSY (`max`), NETIO_EINVAL (label, mode), NETIO_ENOMEM; as channels_input.
static inline int channels_open(channels *m, uint16_t *id, const void *label, size_t len,
                                void *user);
static inline int channels_accept(channels *m, uint16_t id); // NETIO_EINVAL: not offered

// BARE, TEXT: take part in channel `id`. Returns 0; NETIO_EEXIST, NETIO_EBUSY, NETIO_EINVAL (mode),
// NETIO_ENOMEM.
static inline int channels_add(channels *m, uint16_t id, void *user);

// Send. CREDIT: as much as the peer takes now; when that was the limit, and not emit, CREDITED will
// come. BARE: one frame. All calls about a channel that is not there, or closed here, are
// NETIO_ENOENT.
//
// Returns  bytes taken; NETIO_ENOBUFS (none: the peer takes no more now, or emit does not),
//          NETIO_EPIPE (after end); BARE: NETIO_EMSGSIZE (over CHANNELS_PAYLOAD_MAX), NETIO_EINVAL
//          (TEXT: a line feed); as channels_input
static inline ptrdiff_t channels_send(channels *m, uint16_t id, const void *data, size_t len);

// The oldest bytes that were not read, in one piece (BARE: one message, perhaps empty, or what is
// left of it); data NULL: none. Lent until the next call on `m`. Dropping what was used up lets the
// peer send more; an empty message goes with 0 bytes. Drop returns 0; NETIO_EINVAL: all that waited
// is dropped, and it was less.
static inline netio_buf channels_front(const channels *m, uint16_t id);
static inline int channels_drop(channels *m, uint16_t id, size_t len);
static inline bool channels_ended(const channels *m, uint16_t id); // and all of it was read

// No more data from here, once accepted; reading goes on. Again: 0. Returns 0; as channels_input.
static inline int channels_end(channels *m, uint16_t id);

// Done with a channel: it is not known here from now on. If both directions have ended, all was
// read, and `err` is 0, that is its clean end; else the peer gets CLOSED with `err` (0:
// ECONNRESET).
// Returns 0; NETIO_EINVAL (`err`); as channels_input.
static inline int channels_close(channels *m, uint16_t id, int err);

static inline int channels_ping(channels *m); // CREDIT: PONG follows. Returns 0; as channels_input
static inline void *channels_user(const channels *m, uint16_t id);
static inline void channels_set_user(channels *m, uint16_t id, void *user);
static inline const char *channels_why(const channels *m); // what ended all; "": nothing did
static inline channels_stats channels_get_stats(const channels *m);

//================================================================================================
// Code
//
//     channels_open ---> ASKED ----ACCEPT comes-----> UP
//     OPEN comes ------> OFFERED --channels_accept--> UP
//     each ---channels_close--> CLOSING ---CLOSE comes---> gone
//     each ---CLOSE comes, not 0: answered---> gone;  0: stays UP until channels_close, then gone
//================================================================================================

enum { CHANNELS__ASKED, CHANNELS__OFFERED, CHANNELS__UP, CHANNELS__CLOSING };
enum { CHANNELS__BUCKETS = 256, CHANNELS__BLOCK = 4096, CHANNELS__LINE_HEAD = 6 };
// clang-format off
enum { CHANNELS__OPEN = 1, CHANNELS__ACCEPT, CHANNELS__CREDIT, CHANNELS__END, CHANNELS__CLOSE,
       CHANNELS__PING, CHANNELS__PONG };
// clang-format on

// Received bytes. Streams fill the last one before there is another, so that many small frames cost
// no more than one large one; a message has one of its own.
typedef struct channels__block {
    struct channels__block *next;
    size_t off, len, cap; // bytes, which follow
} channels__block;

typedef struct channels__one {
    struct channels__one *next; // in its bucket
    void *user;
    channels__block *first, *last;
    size_t blocks;
    uint32_t credit; // bytes that may be sent
    uint32_t room;   // bytes that the peer may send
    uint32_t owed;   // bytes that were read and not given back as credit
    uint16_t id;
    uint8_t state;
    bool accepted;   // ACCEPT was said, whoever said it
    bool starved;    // a send took less than all
    bool end_wanted; // as soon as accepted
    bool end_sent, end_came, close_came;
} channels__one;

struct channels {
    channels_opts opts;
    channels_stats stats;
    channels__one *table[CHANNELS__BUCKETS];
    channels__one *lender; // whose bytes are borrowed
    netio_buf lent;
    uint64_t refusals; // above `max`, of which nothing is known but that the peer's CLOSE will come
    uint8_t *line;     // TEXT: room for one to send
    uint16_t next;     // number to try for the next channel that is opened here
    int err;
    const char *why;
};

static inline netio_framing channels_framing(int mode)
{
    netio_framing f = netio_framing_length(2, CHANNELS_PAYLOAD_MAX);
    f.header = 4;
    f.offset = 2;
    if (mode != CHANNELS_TEXT) return f;
    f = netio_framing_line(CHANNELS__LINE_HEAD + CHANNELS_PAYLOAD_MAX);
    f.skip = true; // one that is too long is no reason to end
    return f;
}

static int channels__fail(channels *m, int err, const char *why)
{
    m->why = why;
    return m->err = err;
}

static int channels__broken(channels *m, const char *why)
{
    return channels__fail(m, NETIO_EPROTO, why);
}

static inline int channels_create(channels **out, const channels_opts *opts)
{
    bool text = opts->mode == CHANNELS_TEXT;
    if (opts->mode < 0 || opts->mode > CHANNELS_TEXT || !opts->emit || opts->max > 65536 ||
        opts->window > CHANNELS_CREDIT_MAX)
        return NETIO_EINVAL;
    channels *m = (channels *)calloc(1, sizeof *m);
    if (m && text) m->line = (uint8_t *)malloc(CHANNELS__LINE_HEAD + CHANNELS_PAYLOAD_MAX);
    if (!m || (text && !m->line)) {
        free(m);
        return NETIO_ENOMEM;
    }
    m->opts = *opts;
    if (!m->opts.window) m->opts.window = (size_t)256 * 1024;
    if (!m->opts.max) m->opts.max = 256;
    m->next = opts->dialed ? 1 : 2;
    m->why = "";
    *out = m;
    return 0;
}

// --- one channel ---------------------------------------------------------------------------------

static channels__one *channels__find(const channels *m, uint16_t id)
{
    channels__one *ch = m->table[id % CHANNELS__BUCKETS];
    while (ch && ch->id != id) ch = ch->next;
    return ch;
}

// One that was not closed here.
static channels__one *channels__get(const channels *m, uint16_t id)
{
    channels__one *ch = channels__find(m, id);
    return ch && ch->state != CHANNELS__CLOSING ? ch : NULL;
}

static channels__one *channels__add(channels *m, uint16_t id, uint8_t state, void *user)
{
    channels__one *ch = (channels__one *)calloc(1, sizeof *ch);
    if (!ch) return NULL;
    ch->id = id;
    ch->state = state;
    ch->user = user;
    ch->next = m->table[id % CHANNELS__BUCKETS];
    m->table[id % CHANNELS__BUCKETS] = ch;
    m->stats.open++;
    return ch;
}

static void channels__set_state(channels__one *ch, uint8_t state)
{
    assert(state == CHANNELS__CLOSING || (state == CHANNELS__UP && ch->state < CHANNELS__UP));
    ch->state = state;
    if (state == CHANNELS__UP) ch->accepted = true;
}

static void channels__block_drop(channels__one *ch)
{
    channels__block *b = ch->first;
    ch->first = b->next;
    ch->blocks--;
    free(b);
}

static void channels__empty(channels *m, channels__one *ch)
{
    while (ch->first) channels__block_drop(ch);
    if (m->lender == ch) m->lent.data = NULL;
}

static void channels__remove(channels *m, channels__one *ch)
{
    channels__one **at = &m->table[ch->id % CHANNELS__BUCKETS];
    while (*at != ch) at = &(*at)->next;
    *at = ch->next;
    channels__empty(m, ch);
    free(ch);
    m->stats.open--;
}

static inline void channels_destroy(channels *m)
{
    if (!m) return;
    for (size_t i = 0; i < CHANNELS__BUCKETS; i++) {
        while (m->table[i]) channels__remove(m, m->table[i]);
    }
    free(m->line);
    free(m);
}

// Behind what waits already. `join`: a stream, whose pieces may become one.
static int channels__append(channels__one *ch, netio_buf piece, bool join)
{
    channels__block *b = ch->first && join ? ch->last : NULL;
    size_t n = b ? b->cap - b->len : 0;
    if (n > piece.len) n = piece.len;
    if (b) memcpy((uint8_t *)(b + 1) + b->len, piece.data, n);
    if (b) b->len += n;
    size_t left = piece.len - n, cap = left;
    if (join && cap < CHANNELS__BLOCK) cap = CHANNELS__BLOCK;
    if (b && left == 0) return 0;
    channels__block *more = (channels__block *)malloc(sizeof *more + cap);
    if (!more) return NETIO_ENOMEM;
    memcpy(more + 1, (const uint8_t *)piece.data + n, left);
    more->next = NULL;
    more->off = 0;
    more->len = left;
    more->cap = cap;
    if (ch->first) ch->last->next = more;
    else ch->first = more;
    ch->last = more;
    ch->blocks++;
    return 0;
}

// --- sending -------------------------------------------------------------------------------------

static int channels__emit(channels *m, uint16_t id, const void *data, size_t len)
{
    uint8_t header[4] = {0, 0, 0, 0};
    netio_frame frame;
    memset(&frame, 0, sizeof frame);
    frame.data = (const uint8_t *)data;
    frame.len = len;
    if (m->opts.mode == CHANNELS_TEXT) {
        char head[CHANNELS__LINE_HEAD + 1];
        size_t n = (size_t)snprintf(head, sizeof head, "%u:", (unsigned)id);
        memcpy(m->line, head, n);
        if (len) memcpy(m->line + n, data, len);
        frame.data = m->line;
        frame.len = n + len;
    } else {
        header[0] = (uint8_t)(id >> 8);
        header[1] = (uint8_t)id;
        frame.header = header;
        frame.header_len = sizeof header;
    }
    int err = m->opts.emit(m->opts.user, &frame);
    if (err == 0) m->stats.frames_out++;
    return err;
}

// A control frame: `width` bytes of a value, then text.
static int channels__tell(channels *m, int type, uint16_t id, int width, uint32_t value,
                          netio_buf label)
{
    uint8_t bytes[7 + CHANNELS_LABEL_MAX];
    netio_cursor cur = netio_cursor_put(bytes, sizeof bytes);
    netio_put_uint(&cur, 1, (uint64_t)type);
    if (id) netio_put_uint(&cur, 2, id);
    if (width) netio_put_uint(&cur, width, value);
    if (label.len) netio_put_bytes(&cur, label.data, label.len);
    int err = channels__emit(m, 0, bytes, cur.off);
    return err < 0 ? channels__fail(m, err, "a control frame could not be sent") : 0;
}

static int channels__say(channels *m, int type, uint16_t id, int width, uint32_t value)
{
    netio_buf none = {NULL, 0};
    return channels__tell(m, type, id, width, value, none);
}

static int channels__say_end(channels *m, channels__one *ch)
{
    ch->end_sent = true;
    return channels__say(m, CHANNELS__END, ch->id, 0, 0);
}

static inline ptrdiff_t channels_send(channels *m, uint16_t id, const void *data, size_t len)
{
    channels__one *ch = channels__get(m, id);
    size_t done = 0;
    int err = 0;
    if (m->err < 0) return m->err;
    if (!ch) return NETIO_ENOENT;
    if (ch->end_wanted) return NETIO_EPIPE;
    if (m->opts.mode != CHANNELS_CREDIT) {
        if (len > CHANNELS_PAYLOAD_MAX) return NETIO_EMSGSIZE;
        if (m->opts.mode == CHANNELS_TEXT && len && memchr(data, '\n', len)) return NETIO_EINVAL;
        err = channels__emit(m, id, data, len);
        return err < 0 ? err : (ptrdiff_t)len;
    }
    while (done < len && ch->accepted && ch->credit > 0) {
        size_t n = len - done < ch->credit ? len - done : ch->credit;
        if (n > CHANNELS_PIECE) n = CHANNELS_PIECE;
        err = channels__emit(m, id, (const uint8_t *)data + done, n);
        if (err < 0) break;
        ch->credit -= (uint32_t)n;
        done += n;
    }
    ch->starved = done < len && err == 0;
    if (done > 0 || len == 0) return (ptrdiff_t)done;
    return err < 0 ? err : NETIO_ENOBUFS;
}

static inline int channels_end(channels *m, uint16_t id)
{
    channels__one *ch = channels__get(m, id);
    if (m->err < 0) return m->err;
    if (!ch) return NETIO_ENOENT;
    if (m->opts.mode != CHANNELS_CREDIT) return NETIO_EINVAL;
    if (ch->end_wanted) return 0;
    ch->end_wanted = true;
    return ch->accepted ? channels__say_end(m, ch) : 0;
}

static inline int channels_ping(channels *m)
{
    if (m->err < 0) return m->err;
    if (m->opts.mode != CHANNELS_CREDIT) return NETIO_EINVAL;
    return channels__say(m, CHANNELS__PING, 0, 0, 0);
}

// --- opening and closing -------------------------------------------------------------------------

static inline int channels_add(channels *m, uint16_t id, void *user)
{
    if (m->opts.mode == CHANNELS_CREDIT) return NETIO_EINVAL;
    if (channels__find(m, id)) return NETIO_EEXIST;
    if (m->stats.open >= m->opts.max) return NETIO_EBUSY;
    channels__one *ch = channels__add(m, id, CHANNELS__OFFERED, user);
    if (!ch) return NETIO_ENOMEM;
    channels__set_state(ch, CHANNELS__UP);
    return 0;
}

static inline int channels_open(channels *m, uint16_t *id, const void *label, size_t len,
                                void *user)
{
    netio_buf text = {label, len};
    unsigned tries = 32768;
    if (m->err < 0) return m->err;
    if (m->opts.mode != CHANNELS_CREDIT || len > CHANNELS_LABEL_MAX || (len && !label))
        return NETIO_EINVAL;
    if (m->stats.open >= m->opts.max) return NETIO_EBUSY;
    uint16_t number = 0;
    while (tries-- > 0 && (number == 0 || channels__find(m, number))) {
        number = m->next;
        m->next = (uint16_t)(number > 65533 ? (m->opts.dialed ? 1 : 2) : number + 2);
    }
    if (channels__find(m, number)) return NETIO_EBUSY; // all of this end's numbers are in use
    channels__one *ch = channels__add(m, number, CHANNELS__ASKED, user);
    if (!ch) return NETIO_ENOMEM;
    ch->room = (uint32_t)m->opts.window;
    int err = channels__tell(m, CHANNELS__OPEN, number, 4, ch->room, text);
    if (err == 0) *id = number;
    return err;
}

static inline int channels_accept(channels *m, uint16_t id)
{
    channels__one *ch = channels__get(m, id);
    if (m->err < 0) return m->err;
    if (!ch) return NETIO_ENOENT;
    if (ch->state != CHANNELS__OFFERED) return NETIO_EINVAL;
    channels__set_state(ch, CHANNELS__UP);
    ch->room = (uint32_t)m->opts.window;
    int err = channels__say(m, CHANNELS__ACCEPT, id, 4, ch->room);
    return err == 0 && ch->end_wanted ? channels__say_end(m, ch) : err;
}

static inline int channels_close(channels *m, uint16_t id, int err)
{
    channels__one *ch = channels__get(m, id);
    if (m->err < 0) return m->err;
    if (err > 0 || err < -65535) return NETIO_EINVAL;
    if (!ch) return NETIO_ENOENT;
    if (m->opts.mode != CHANNELS_CREDIT) {
        channels__remove(m, ch);
        return 0;
    }
    bool clean = err == 0 && ch->end_sent && ch->end_came && !channels_front(m, id).data;
    uint32_t code = clean ? 0u : (uint32_t)(err < 0 ? -err : -NETIO_ECONNRESET);
    if (ch->close_came) {
        channels__remove(m, ch);
    } else {
        channels__empty(m, ch);
        channels__set_state(ch, CHANNELS__CLOSING);
    }
    return channels__say(m, CHANNELS__CLOSE, id, 2, code);
}

// --- reading -------------------------------------------------------------------------------------

static inline netio_buf channels_front(const channels *m, uint16_t id)
{
    const channels__one *ch = channels__get(m, id);
    netio_buf piece = {NULL, 0};
    if (ch && ch->first) {
        piece.data = (const uint8_t *)(ch->first + 1) + ch->first->off;
        piece.len = ch->first->len - ch->first->off;
    } else if (ch && ch == m->lender && m->lent.data) {
        piece = m->lent;
    }
    return piece;
}

static inline int channels_drop(channels *m, uint16_t id, size_t len)
{
    channels__one *ch = channels__get(m, id);
    if (m->err < 0) return m->err;
    if (!ch) return NETIO_ENOENT;
    do {
        netio_buf piece = channels_front(m, id);
        size_t n = piece.len < len ? piece.len : len;
        if (!piece.data) return len ? NETIO_EINVAL : 0;
        if (ch->first) {
            ch->first->off += n;
            if (n == piece.len) channels__block_drop(ch);
        } else {
            m->lent.data = n < piece.len ? (const uint8_t *)piece.data + n : NULL;
            m->lent.len -= n;
        }
        ch->owed += (uint32_t)n;
        len -= n;
    } while (len > 0);
    // In lumps: a word for each piece would cost more than it brings.
    if (m->opts.mode != CHANNELS_CREDIT || ch->end_came || ch->owed < m->opts.window / 2) return 0;
    uint32_t more = ch->owed;
    ch->owed = 0;
    ch->room += more;
    return more ? channels__say(m, CHANNELS__CREDIT, id, 4, more) : 0;
}

static inline bool channels_ended(const channels *m, uint16_t id)
{
    const channels__one *ch = channels__get(m, id);
    return ch && ch->end_came && !channels_front(m, id).data;
}

static inline int channels_keep(channels *m)
{
    netio_buf piece = m->lent;
    m->lent.data = NULL;
    if (m->err < 0 || !piece.data) return m->err;
    if (channels__append(m->lender, piece, m->opts.mode == CHANNELS_CREDIT) == 0) return 0;
    return channels__fail(m, NETIO_ENOMEM, "no memory for what arrived");
}

// --- what arrives --------------------------------------------------------------------------------

static int channels__on_data(channels *m, uint16_t id, netio_buf data, channels_event *out)
{
    channels__one *ch = channels__find(m, id);
    if (m->opts.mode != CHANNELS_CREDIT) {
        if (!ch) return m->stats.unknown++, 0;
        if (ch->blocks == CHANNELS_QUEUE) return m->stats.full++, NETIO_ENOBUFS;
    } else {
        if (!ch) return channels__broken(m, "data for a channel that is not open");
        if (!ch->accepted) return channels__broken(m, "data for a channel before ACCEPT");
        if (ch->end_came) return channels__broken(m, "data for a channel after its END");
        if (data.len == 0) return channels__broken(m, "a frame without data");
        if (data.len > ch->room) return channels__broken(m, "more data than there was credit for");
        ch->room -= (uint32_t)data.len;
        if (ch->state == CHANNELS__CLOSING) return m->stats.late++, 0;
    }
    m->lender = ch;
    m->lent = data;
    out->type = CHANNELS_DATA;
    out->len = data.len;
    out->user = ch->user;
    return 0;
}

static int channels__on_open(channels *m, uint16_t id, uint32_t window, netio_buf label,
                             channels_event *out)
{
    if ((id % 2 == 1) == m->opts.dialed) return channels__broken(m, "OPEN with a number of ours");
    if (channels__find(m, id)) return channels__broken(m, "OPEN for a channel that is open");
    if (window > CHANNELS_CREDIT_MAX) return channels__broken(m, "OPEN with too large a window");
    if (label.len > CHANNELS_LABEL_MAX) return channels__broken(m, "OPEN with too long a label");
    channels__one *ch =
        m->stats.open < m->opts.max ? channels__add(m, id, CHANNELS__OFFERED, NULL) : NULL;
    if (!ch) {
        m->refusals++;
        m->stats.refused++;
        return channels__say(m, CHANNELS__CLOSE, id, 2, -NETIO_EBUSY);
    }
    ch->credit = window;
    out->type = CHANNELS_OPEN;
    out->label = label;
    return 0;
}

// ACCEPT, CREDIT and END, also for what was closed here meanwhile.
static int channels__on_word(channels *m, channels__one *ch, unsigned type, uint32_t value,
                             channels_event *out)
{
    bool ours = (ch->id % 2 == 1) == m->opts.dialed, known = ch->state != CHANNELS__CLOSING;
    int event = 0;
    if (type == CHANNELS__ACCEPT) {
        if (!ours || ch->accepted || value > CHANNELS_CREDIT_MAX)
            return channels__broken(m, "ACCEPT out of place");
        ch->credit = value;
        ch->accepted = true;
        if (known) channels__set_state(ch, CHANNELS__UP);
        event = CHANNELS_ACCEPTED;
    } else if (type == CHANNELS__CREDIT) {
        if (!ch->accepted || value == 0 || value > CHANNELS_CREDIT_MAX - ch->credit)
            return channels__broken(m, "CREDIT out of place");
        ch->credit += value;
        event = ch->starved ? CHANNELS_CREDITED : 0;
        ch->starved = false;
    } else {
        if (!ch->accepted || ch->end_came) return channels__broken(m, "END out of place");
        ch->end_came = true;
        event = CHANNELS_ENDED;
    }
    if (!known) return 0;
    out->type = event;
    out->user = ch->user;
    return type == CHANNELS__ACCEPT && ch->end_wanted ? channels__say_end(m, ch) : 0;
}

static int channels__on_close(channels *m, channels__one *ch, uint32_t code, channels_event *out)
{
    if (code == 0 && !(ch->end_sent && ch->end_came))
        return channels__broken(m, "a clean CLOSE before both ends");
    if (ch->state == CHANNELS__CLOSING) {
        channels__remove(m, ch);
        return 0;
    }
    if (code == 0) { // the user may be reading still
        ch->close_came = true;
        return 0;
    }
    out->type = CHANNELS_CLOSED;
    out->err = -(int)code;
    out->user = ch->user;
    uint16_t id = ch->id;
    channels__remove(m, ch);
    return channels__say(m, CHANNELS__CLOSE, id, 2, code);
}

static int channels__on_control(channels *m, netio_buf data, channels_event *out)
{
    static const int widths[] = {0, 4, 4, 4, 0, 2, 0, 0};
    netio_cursor cur = netio_cursor_get(data.data, data.len);
    unsigned type = (unsigned)netio_get_uint(&cur, 1);
    if (type == 0 || type > CHANNELS__PONG) return channels__broken(m, "an unknown control frame");
    bool ping = type >= CHANNELS__PING;
    uint16_t id = ping ? 0 : (uint16_t)netio_get_uint(&cur, 2);
    uint32_t value = widths[type] ? (uint32_t)netio_get_uint(&cur, widths[type]) : 0;
    netio_buf label = {(const uint8_t *)data.data + cur.off, data.len - cur.off};
    if (cur.err < 0 || (!ping && id == 0) || (type != CHANNELS__OPEN && label.len > 0))
        return channels__broken(m, "a malformed control frame");
    if (type == CHANNELS__PING) return channels__say(m, CHANNELS__PONG, 0, 0, 0);
    if (type == CHANNELS__PONG) out->type = CHANNELS_PONG;
    if (type == CHANNELS__PONG) return 0;

    out->id = id;
    if (type == CHANNELS__OPEN) return channels__on_open(m, id, value, label, out);
    channels__one *ch = channels__find(m, id);
    if (!ch && type == CHANNELS__CLOSE && m->refusals > 0) {
        m->refusals--;
        return 0;
    }
    if (!ch) return channels__broken(m, "a word about a channel that is not open");
    if (ch->close_came) return channels__broken(m, "a word about a channel after its CLOSE");
    if (type == CHANNELS__CLOSE) return channels__on_close(m, ch, value, out);
    return channels__on_word(m, ch, type, value, out);
}

// "id:data" becomes both. Whether it is that.
static bool channels__line(uint16_t *id, netio_buf *line)
{
    const char *text = (const char *)line->data;
    size_t at = 0;
    unsigned number = 0;
    for (; at < line->len && text[at] >= '0' && text[at] <= '9'; at++) {
        number = number * 10 + (unsigned)(text[at] - '0');
        if (number > 65535) return false;
    }
    if (at == 0 || at == line->len || text[at] != ':') return false;
    *id = (uint16_t)number;
    line->data = text + at + 1;
    line->len -= at + 1;
    return line->len <= CHANNELS_PAYLOAD_MAX;
}

static inline int channels_input(channels *m, const netio_frame *frame, channels_event *out)
{
    netio_buf data = {frame->data, frame->len};
    channels_event e;
    uint16_t id = 0;
    int err;
    memset(&e, 0, sizeof e);
    if (m->err < 0) return m->err;
    if (m->lent.data) return NETIO_EBUSY;
    if (m->opts.mode == CHANNELS_TEXT) {
        if (!channels__line(&id, &data)) return *out = e, m->stats.bad_lines++, 0;
    } else {
        if (frame->header_len != 4 || data.len > CHANNELS_PAYLOAD_MAX) return NETIO_EINVAL;
        id = (uint16_t)(frame->header[0] << 8 | frame->header[1]);
    }
    m->stats.frames_in++;
    e.id = id;
    if (id == 0 && m->opts.mode == CHANNELS_CREDIT) err = channels__on_control(m, data, &e);
    else err = channels__on_data(m, id, data, &e);
    if (err == 0) *out = e;
    return err;
}

// --- the rest ------------------------------------------------------------------------------------

static inline void *channels_user(const channels *m, uint16_t id)
{
    const channels__one *ch = channels__get(m, id);
    return ch ? ch->user : NULL;
}

static inline void channels_set_user(channels *m, uint16_t id, void *user)
{
    channels__one *ch = channels__get(m, id);
    if (ch) ch->user = user;
}

static inline const char *channels_why(const channels *m) { return m->why; }

static inline channels_stats channels_get_stats(const channels *m) { return m->stats; }
#endif // CHANNELS_H
