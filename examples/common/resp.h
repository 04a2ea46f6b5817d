// resp.h: RESP2, the protocol of Redis, as a format of one's own for netio's framing.
//
// netio knows RESP no better than any protocol of yours: this is a table of two functions, one that
// finds a frame at the start of some bytes and one that says what stands around a payload. With it
// commands and replies work wherever frames do: netio_decoder on bytes from anywhere,
// netio_stream_read_frame on a blocking stream, on_frame of a connection.
//
//     static const resp_limits limits = {.bulk_max = 4096};
//     opts.conn.framing = resp_commands(&limits, 0);             // a server
//     netio_decoder_init(&d, resp_replies(NULL, 0), NULL, 0);    // a client
//
// A frame is a whole command or reply. Its type says which, its header is the raw first line:
//
//     on the wire            type            header    data
//     "+OK\r\n"              RESP_STRING     "+"       "OK"
//     "-ERR no\r\n"          RESP_ERROR      "-"       "ERR no"
//     ":7\r\n"               RESP_INTEGER    ":"       "7"
//     "$5\r\nhello\r\n"      RESP_BULK       "$5\r\n"  "hello"
//     "*1\r\n$4\r\nPING\r\n" RESP_ARRAY      "*1\r\n"  "$4\r\nPING\r\n": its items
//     "$-1\r\n", "*-1\r\n"   RESP_NULL       all       nothing
//     "PING hello\r\n"       RESP_INLINE     none      "PING hello"       (commands only)
//
// What comes from the network is checked to its last byte before it is a frame, and refused at the
// first wrong one, however it was cut: NETIO_EPROTO, or NETIO_EMSGSIZE for what a limit forbids.
// Any thread, no heap, no state.
// See https://redis.io/docs/latest/develop/reference/protocol-spec/
#ifndef RESP_H
#define RESP_H

#include "../../netio.h"

#include <string.h>

//================================================================================================
// Declarations
//================================================================================================

// clang-format off
enum { RESP_STRING = '+', RESP_ERROR = '-', RESP_INTEGER = ':', RESP_BULK = '$', RESP_ARRAY = '*',
       RESP_NULL = '_', RESP_INLINE = 'i' };
// clang-format on

enum { RESP_DEPTH_MAX = 8, RESP_HEAD_MAX = 24 };

// What a frame may hold, besides the framing's own `max`: the most bytes of its data.
typedef struct resp_limits {
    size_t items_max; // of all arrays of one frame together; 0: 1024. Each piece in which a frame
                      // arrives costs a look at the items before it, so this bounds work, too
    size_t bulk_max;  // bytes of one bulk string; 0: 512 KiB
    size_t line_max;  // bytes of a simple string, an error or an inline command; 0: 16 KiB
    int depth_max;    // replies: arrays inside each other; 0: 4, at most RESP_DEPTH_MAX
} resp_limits;

// Framings. A server reads commands: arrays of bulk strings, and inline ones (empty commands are
// skipped, as Redis does). A client reads replies. Both write all types; a frame to send without a
// type is a bulk string, and a RESP_ARRAY's data must be whole items, which are counted.
// `limits` is borrowed as long as the framing is used; NULL: the defaults. `max` 0: 1 MiB.
static inline netio_framing resp_commands(const resp_limits *limits, size_t max);
static inline netio_framing resp_replies(const resp_limits *limits, size_t max);

// The arguments of a command that a decoder handed out, name included; they lie in the frame. The
// words of an inline command are what stands between blanks: quotes mean nothing there.
// Returns how many; NETIO_ENOSPC: more than `cap`; NETIO_EINVAL: not a command.
static inline ptrdiff_t resp_args(const netio_frame *command, netio_buf *args, size_t cap);

// A value inside a reply.
typedef struct resp_value {
    unsigned type;  // RESP_STRING to RESP_NULL
    netio_buf text; // STRING, ERROR, BULK; INTEGER: its digits
    int64_t number; // INTEGER: the value; ARRAY: how many values follow that belong to it
} resp_value;

// The values of a reply that a decoder handed out, from outside in and first to last:
//     resp_reader r = resp_read(&frame);
//     while (resp_next(&r, &value)) ...
typedef struct resp_reader {
    const uint8_t *at, *end;
} resp_reader;

static inline resp_reader resp_read(const netio_frame *reply);
static inline bool resp_next(resp_reader *r, resp_value *out); // false: there are no more

// "*3\r\n", "$5\r\n" or ":-7\r\n" into `out`, without a NUL. Returns the length.
static inline size_t resp_put_head(char out[RESP_HEAD_MAX], unsigned type, int64_t number);

// The items of a command, to be sent as the data of a frame of type RESP_ARRAY.
// Returns the length; NETIO_ENOSPC. Bytes and RESP_HEAD_MAX + 2 for each argument are enough.
static inline ptrdiff_t resp_put_args(void *buf, size_t cap, const netio_buf *args, size_t count);

// A decimal integer as Redis writes them: no blanks, no leading zeros, no plus.
static inline bool resp_integer(const void *data, size_t len, int64_t *out);

//================================================================================================
// Reading: from the first byte to the first wrong one, or to the end of a frame
//================================================================================================

typedef struct resp__scan {
    const uint8_t *data;
    size_t len, at;                                       // at: the next byte
    size_t max, items_max, bulk_max, line_max, depth_max; // items_max: of those still allowed
    size_t least;   // bytes of the shortest item there can be in an array
    size_t spare;   // of max, when all items that are still to come are that short
    size_t need;    // needs more: so many at least; an error: the size that is too large
    size_t body;    // of the last item: where its data begins
    int64_t number; // of the last item: bytes, items or value; -1: null
    bool commands;
} resp__scan;

static inline size_t resp__or(size_t value, size_t usual) { return value ? value : usual; }

static inline size_t resp__min(size_t a, size_t b) { return a < b ? a : b; }

static inline resp__scan resp__scan_of(const netio_framing *framing, bool commands)
{
    const resp_limits none = {0};
    const resp_limits *limits = framing->user ? (const resp_limits *)framing->user : &none;
    resp__scan s = {0};
    s.max = s.spare = resp__or(framing->max, 1u << 20);
    s.items_max = resp__min(resp__or(limits->items_max, 1024), UINT32_MAX);
    s.bulk_max = resp__min(resp__or(limits->bulk_max, 512u << 10), SIZE_MAX / 4);
    s.line_max = resp__or(limits->line_max, 16u << 10);
    s.depth_max = limits->depth_max > 0 ? (size_t)limits->depth_max : 4;
    s.depth_max = commands ? 1 : resp__min(s.depth_max, RESP_DEPTH_MAX);
    s.least = commands ? 6 : 3; // "$0\r\n\r\n", "+\r\n"
    s.commands = commands;
    return s;
}

// These return 1; 0: needs more; NETIO_EPROTO, NETIO_EMSGSIZE.

static inline int resp__too_large(resp__scan *s, uint64_t size)
{
    s->need = size < SIZE_MAX ? (size_t)size : SIZE_MAX;
    return NETIO_EMSGSIZE;
}

static inline int resp__crlf(resp__scan *s)
{
    if (s->at < s->len && s->data[s->at] != '\r') return NETIO_EPROTO;
    if (s->len - s->at < 2) return 0;
    if (s->data[s->at + 1] != '\n') return NETIO_EPROTO;
    s->at += 2;
    return 1;
}

static inline int resp__line(resp__scan *s, size_t most)
{
    size_t start = s->at;
    for (; s->at < s->len && s->data[s->at] != '\r'; s->at++) {
        if (s->data[s->at] == '\n') return NETIO_EPROTO;
        if (s->at - start == most) return resp__too_large(s, (uint64_t)most + 1);
    }
    s->number = (int64_t)(s->at - start);
    return resp__crlf(s);
}

// From `low`, which is negative or 0, to `high`. A plus is for whole integers only.
static inline int resp__number(resp__scan *s, int64_t low, int64_t high)
{
    size_t at = s->at, first;
    bool minus = low < 0 && at < s->len && s->data[at] == '-';
    uint64_t n = 0, most = minus ? 0 - (uint64_t)low : (uint64_t)high;
    if (minus || (low < -1 && at < s->len && s->data[at] == '+')) at++;
    for (first = at; at < s->len && s->data[at] != '\r'; at++) {
        unsigned digit = (unsigned)s->data[at] - '0';
        bool zero = n == 0 && (at > first || (minus && digit == 0)); // "01", "-0"
        if (digit > 9 || zero) return NETIO_EPROTO;
        if (digit > most || n > (most - digit) / 10)
            return minus ? (int)NETIO_EPROTO : resp__too_large(s, n * 10 + digit);
        n = n * 10 + digit;
    }
    if (at == first && at < s->len) return NETIO_EPROTO;
    s->at = at;
    s->number = minus ? -(int64_t)(n - 1) - 1 : (int64_t)n; // also of the lowest there is
    return resp__crlf(s);
}

// The item takes so much more than the shortest.
static inline int resp__spend(resp__scan *s, uint64_t more)
{
    if (more > s->spare) return resp__too_large(s, s->max + (more - s->spare));
    s->spare -= (size_t)more;
    return 1;
}

static inline int resp__bulk(resp__scan *s, bool top, size_t start)
{
    int r = resp__number(s, s->commands ? 0 : -1, (int64_t)s->bulk_max);
    if (r <= 0) return r;
    size_t head = s->at - start, n = s->number > 0 ? (size_t)s->number : 0;
    size_t crlf = s->number < 0 ? 0 : 2;
    s->body = s->at;
    r = resp__spend(s, top ? n : head + n + crlf - s->least);
    if (r <= 0 || s->number < 0) return r;
    if (s->len - s->at <= n) { // all bytes are good up to the line end
        s->need = s->at + n + 1;
        return 0;
    }
    s->at += n;
    return resp__crlf(s);
}

static inline int resp__array(resp__scan *s, size_t depth, size_t start)
{
    if (depth == s->depth_max) return resp__too_large(s, 0);
    int r = resp__number(s, -1, (int64_t)s->items_max);
    if (r <= 0) return r;
    uint64_t n = s->number > 0 ? (uint64_t)s->number : 0;
    s->body = s->at;
    s->items_max -= (size_t)n;
    return resp__spend(s, n * s->least + (depth == 0 ? 0 : s->at - start - s->least));
}

// One item, of an array only its head. `depth`: how many arrays are around it.
static inline int resp__item(resp__scan *s, size_t depth, unsigned *type)
{
    size_t start = s->at;
    int r = NETIO_EPROTO;
    if (start == s->len) return 0;
    *type = s->data[s->at++];
    s->body = s->at;
    if (s->commands && *type != (depth == 0 ? RESP_ARRAY : RESP_BULK)) return NETIO_EPROTO;
    switch (*type) {
    case RESP_STRING:
    case RESP_ERROR:
        r = resp__line(s, resp__min(s->line_max, s->spare));
        return r > 0 ? resp__spend(s, (uint64_t)s->number) : r;
    case RESP_INTEGER:
        r = resp__number(s, INT64_MIN, INT64_MAX);
        if (r == NETIO_EMSGSIZE) return NETIO_EPROTO; // no limit of ours, but the format's
        return r > 0 ? resp__spend(s, s->at - start - 3) : r;
    case RESP_BULK: return resp__bulk(s, depth == 0, start);
    case RESP_ARRAY: return resp__array(s, depth, start);
    default: return r;
    }
}

// What is known of the frame after its first item.
static inline void resp__fill(const resp__scan *s, unsigned type, netio_frame *out)
{
    bool null = s->number < 0 && (type == RESP_BULK || type == RESP_ARRAY);
    out->type = null ? RESP_NULL : type;
    out->header = s->data;
    out->header_len = s->body;
    out->data = s->data + s->body;
    out->len = null || type == RESP_ARRAY ? 0 : s->at - s->body - 2;
}

// One whole frame. Returns its bytes, 0 or an error.
static inline ptrdiff_t resp__frame(resp__scan *s, netio_frame *out)
{
    size_t left[RESP_DEPTH_MAX + 1] = {1}, depth = 0; // items to come in each array that is open
    bool first = true;
    do {
        unsigned type = 0;
        int r = resp__item(s, depth, &type);
        if (r <= 0) return r;
        if (first) resp__fill(s, type, out);
        first = false;
        left[depth]--;
        if (type == RESP_ARRAY && s->number > 0) left[++depth] = (size_t)s->number;
        while (depth > 0 && left[depth] == 0) depth--;
    } while (left[depth] > 0);
    if (out->type == RESP_ARRAY) out->len = s->at - out->header_len;
    return (ptrdiff_t)s->at;
}

// A line that a person typed: LF or CRLF at its end, no other control character but tabs.
static inline ptrdiff_t resp__inline(resp__scan *s, netio_frame *out)
{
    size_t most = resp__min(s->line_max, s->max), at = 0;
    bool blank = true;
    for (; at < s->len && s->data[at] != '\n'; at++) {
        uint8_t c = s->data[at];
        if ((c < ' ' && c != '\t' && c != '\r') || c == 127) return NETIO_EPROTO;
        if (at > 0 && s->data[at - 1] == '\r') return NETIO_EPROTO;
        if (at == most && c != '\r') return resp__too_large(s, (uint64_t)most + 1);
        if (c > ' ') blank = false;
    }
    if (at == s->len) return 0;
    s->at = at + 1;
    if (blank) return (ptrdiff_t)s->at; // skipped, as out->data is NULL
    out->type = RESP_INLINE;
    out->data = s->data;
    out->len = s->data[at - 1] == '\r' ? at - 1 : at;
    return (ptrdiff_t)s->at;
}

static inline ptrdiff_t resp__parse(resp__scan *s, netio_frame *out, size_t *need)
{
    bool typed = s->commands && s->data[0] != '*';
    ptrdiff_t r = typed ? resp__inline(s, out) : resp__frame(s, out);
    if (s->commands && !typed && out->len == 0) out->data = NULL; // "*0": skipped
    *need = s->need;
    return r;
}

static inline ptrdiff_t resp__parse_command(const netio_framing *framing, const uint8_t *data,
                                            size_t len, netio_frame *out, size_t *need)
{
    resp__scan s = resp__scan_of(framing, true);
    s.data = data;
    s.len = len;
    return resp__parse(&s, out, need);
}

static inline ptrdiff_t resp__parse_reply(const netio_framing *framing, const uint8_t *data,
                                          size_t len, netio_frame *out, size_t *need)
{
    resp__scan s = resp__scan_of(framing, false);
    s.data = data;
    s.len = len;
    return resp__parse(&s, out, need);
}

//================================================================================================
// Writing
//================================================================================================

static inline size_t resp_put_head(char out[RESP_HEAD_MAX], unsigned type, int64_t number)
{
    char digits[20];
    size_t count = 0, at = 0;
    uint64_t n = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do digits[count++] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    out[at++] = (char)type;
    if (number < 0) out[at++] = '-';
    while (count > 0) out[at++] = digits[--count];
    out[at++] = '\r';
    out[at++] = '\n';
    return at;
}

static inline ptrdiff_t resp_put_args(void *buf, size_t cap, const netio_buf *args, size_t count)
{
    netio_cursor cur = netio_cursor_put(buf, cap);
    char head[RESP_HEAD_MAX];
    for (size_t i = 0; i < count; i++) {
        netio_put_bytes(&cur, head, resp_put_head(head, RESP_BULK, (int64_t)args[i].len));
        netio_put_bytes(&cur, args[i].data, args[i].len);
        netio_put_bytes(&cur, "\r\n", 2);
    }
    return cur.err < 0 ? NETIO_ENOSPC : (ptrdiff_t)cur.off;
}

// As an integer in a reply, which may have a plus.
static inline bool resp__integer(const void *data, size_t len, int64_t *out)
{
    resp__scan s = {0};
    uint8_t text[RESP_HEAD_MAX];
    if (len == 0 || len > 20) return false;
    memcpy(text, data, len);
    memcpy(text + len, "\r\n", 2);
    s.data = text;
    s.len = len + 2;
    if (resp__number(&s, INT64_MIN, INT64_MAX) <= 0 || s.at != s.len) return false;
    *out = s.number;
    return true;
}

static inline bool resp__is_line(const netio_frame *frame)
{
    for (size_t i = 0; i < frame->len; i++)
        if (frame->data[i] == '\r' || frame->data[i] == '\n') return false;
    return true;
}

// How many items; -1: they are not whole, or no items.
static inline int64_t resp__count(const netio_framing *framing, const netio_frame *frame)
{
    int64_t count = 0;
    for (size_t at = 0; at < frame->len; count++) {
        netio_frame item = {0};
        resp__scan s = resp__scan_of(framing, false);
        s.data = frame->data + at;
        s.len = frame->len - at;
        ptrdiff_t r = resp__frame(&s, &item);
        if (r <= 0) return -1;
        at += (size_t)r;
    }
    return count;
}

// Whether it would be read back as this inline command.
static inline bool resp__is_inline(const netio_framing *framing, const netio_frame *frame)
{
    resp__scan s = resp__scan_of(framing, true);
    netio_frame out = {0};
    bool blank = true;
    s.data = frame->data;
    s.len = frame->len;
    for (size_t i = 0; i < frame->len; i++) blank = blank && frame->data[i] <= ' ';
    return !blank && frame->data[0] != '*' && resp__is_line(frame) && resp__inline(&s, &out) == 0;
}

static inline int resp__wrap(netio_envelope *out, const netio_framing *framing,
                             const netio_frame *frame)
{
    unsigned type = frame->type ? frame->type : RESP_BULK;
    int64_t number = (int64_t)frame->len;
    out->tail_len = 2;
    memcpy(out->tail, "\r\n", 2);
    switch (type) {
    case RESP_INTEGER:
        if (!resp__integer(frame->data, frame->len, &number)) return NETIO_EINVAL;
        // fall through
    case RESP_STRING:
    case RESP_ERROR:
        if (!resp__is_line(frame)) return NETIO_EINVAL;
        out->head[0] = (uint8_t)type;
        out->head_len = 1;
        return 0;
    case RESP_INLINE: out->head_len = 0; return resp__is_inline(framing, frame) ? 0 : NETIO_EINVAL;
    case RESP_NULL:
        if (frame->len > 0) return NETIO_EINVAL;
        type = RESP_BULK;
        number = -1;
        out->tail_len = 0;
        break;
    case RESP_BULK: break;
    case RESP_ARRAY:
        number = resp__count(framing, frame);
        if (number < 0) return NETIO_EINVAL;
        out->tail_len = 0;
        break;
    default: return NETIO_EINVAL;
    }
    out->head_len = resp_put_head((char *)out->head, type, number);
    return 0;
}

static inline netio_framing resp_commands(const resp_limits *limits, size_t max)
{
    static const netio_format_ops ops = {resp__parse_command, resp__wrap};
    return netio_framing_custom(&ops, (void *)(uintptr_t)limits, max);
}

static inline netio_framing resp_replies(const resp_limits *limits, size_t max)
{
    static const netio_format_ops ops = {resp__parse_reply, resp__wrap};
    return netio_framing_custom(&ops, (void *)(uintptr_t)limits, max);
}

//================================================================================================
// Looking into a frame: its bytes are known to be good
//================================================================================================

static inline bool resp_integer(const void *data, size_t len, int64_t *out)
{
    return len > 0 && *(const char *)data != '+' && resp__integer(data, len, out);
}

static inline bool resp_next(resp_reader *r, resp_value *out)
{
    bool minus = false;
    uint64_t n = 0;
    if (r->at >= r->end) return false;
    const uint8_t *start = r->at + 1, *at = start;
    out->type = *r->at;
    out->number = 0;
    out->text.data = start;
    if (out->type == RESP_STRING || out->type == RESP_ERROR) {
        while (at < r->end && *at != '\r') at++;
        out->text.len = (size_t)(at - start);
        r->at = at + 2;
        return true;
    }
    for (; at < r->end && *at != '\r'; at++) {
        if (*at == '-') minus = true;
        else if (*at != '+') n = n * 10 + (uint64_t)(*at - '0');
    }
    out->text.len = (size_t)(at - start);
    out->number = minus ? -(int64_t)(n - 1) - 1 : (int64_t)n;
    r->at = at + 2;
    if (out->type == RESP_INTEGER) return true;
    if (minus) out->type = RESP_NULL;
    out->text.data = out->type == RESP_BULK ? r->at : NULL;
    out->text.len = out->type == RESP_BULK ? (size_t)n : 0;
    if (out->type == RESP_BULK) r->at += n + 2;
    return true;
}

static inline resp_reader resp_read(const netio_frame *reply)
{
    resp_reader r = {reply->header, reply->header ? reply->data + reply->len : NULL};
    return r;
}

static inline ptrdiff_t resp__words(const netio_frame *line, netio_buf *args, size_t cap)
{
    size_t count = 0, at = 0;
    while (at < line->len) {
        size_t start = at;
        while (at < line->len && line->data[at] != ' ' && line->data[at] != '\t') at++;
        if (at > start) {
            if (count == cap) return NETIO_ENOSPC;
            args[count].data = line->data + start;
            args[count++].len = at - start;
        }
        at++;
    }
    return (ptrdiff_t)count;
}

static inline ptrdiff_t resp_args(const netio_frame *command, netio_buf *args, size_t cap)
{
    resp_reader r = {command->data, command->data + command->len};
    resp_value value;
    size_t count = 0;
    if (command->type == RESP_INLINE) return resp__words(command, args, cap);
    if (command->type != RESP_ARRAY) return NETIO_EINVAL;
    while (resp_next(&r, &value)) {
        if (value.type != RESP_BULK) return NETIO_EINVAL; // a reply
        if (count == cap) return NETIO_ENOSPC;
        args[count++] = value.text;
    }
    return (ptrdiff_t)count;
}
#endif // RESP_H
