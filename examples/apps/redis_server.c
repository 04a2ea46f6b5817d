// A server that speaks a part of Redis: strings and lists in memory, expiry, and publish and
// subscribe. The protocol is a framing that netio does not know: ../common/resp.h.
//
//     redis_server [OPTION NUMBER]... [ADDRESS]     serve; without an address 127.0.0.1:6379
//     redis_server call HOST:PORT COMMAND [ARG]...  ask a server, this or Redis, print its reply
//
// The server has commands as frames of its connections, the client replies as frames of a blocking
// stream; both by the same header.
//
// What it does against bad clients and bad links:
//   - so many clients, others are told so; a silent one is closed, unless it is subscribed. One can
//     cost 1 MiB of a command that is not whole, and 2 MiB of replies that it does not take
//   - commands have a longest length, values too; what is no command is answered and closed
//   - so many keys, so many bytes: beyond, commands that add are refused, and those that read or
//     delete work. One command may pass the limit, by its own size at most
//   - replies have a longest length, and a client that takes none gets no more commands read; one
//     that does not take what is published to it is cut off, so it costs the others nothing
//   - keys find their place by a hash with a random seed, and the table grows by one place at a
//     time: no choice of keys makes it slow, and no growth makes a pause
// There is no password and no encryption: keep it on addresses that only friends can reach. Nothing
// is kept on disk. SIGTERM or SIGINT ends it; clients get what is queued for them.
//
// Build  cc redis_server.c -o redis_server        (Windows: add -lws2_32)
// Try    ./redis_server 127.0.0.1:7000            and: redis-cli -p 7000
//        ./redis_server call 127.0.0.1:7000 SET greeting hello EX 60
//        redis-benchmark -p 7000 -P 16 -t set,get
#define NETIO_IMPLEMENTATION
#include "../../netio.h"

#include "../common/resp.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ARGS_MOST = 1024,                // of one command
    VALUE_MOST = 512 << 10,          // bytes of one key, value, item or member
    COMMAND_MOST = 1 << 20,          // bytes of one command
    REPLY_MOST = 2 << 20,            // bytes of one reply
    QUEUE_MOST = REPLY_MOST + 65536, // bytes queued for one client: a reply always finds room
    CHANNELS_MOST = 1024,            // that one client may be subscribed to
    STEPS_MOST = 5000000,            // bytes that KEYS looks at: some tens of milliseconds
    GRACE_MS = 5000                  // for the clients to take the last replies when it stops
};

static double memory_mib = 256, keys_max = 1e6, clients_max = 1000, idle_s = 300;

static const struct {
    const char *name, *what;
    double *value, max;
} options[] = {
    {"--memory", "MiB of keys and values", &memory_mib, 1 << 20},
    {"--keys", "keys", &keys_max, 1e9},
    {"--clients", "clients", &clients_max, 1e6},
    {"--idle", "seconds of silence until a client is closed", &idle_s, 1e6},
};
enum { OPTIONS = sizeof options / sizeof *options };

typedef struct client client;

typedef struct string {
    char *data;
    size_t len, cap;
} string;

typedef struct entry {
    struct entry *next;
    uint64_t hash;
    void *value; // of a key; a channel's subscriptions; a member has none
    size_t len;
    char name[];
} entry;

// Entries by name. Linear hashing: places [0, split) were cut in two, their upper halves stand in
// [half, half + split), and each new entry cuts the next one.
typedef struct table {
    entry **places;
    size_t count, half, split;
} table;

typedef struct item {
    enum { STRING, LIST } type;
    entry *home;
    uint64_t expires_ms; // on the loop's clock; 0: never
    netio_timer timer;
    string text;  // STRING
    string *list; // LIST: a ring with `room` places, a power of two
    size_t first, count, room;
} item;

typedef struct subscription {
    client *who;
    entry *channel;
    struct subscription *next, *next_of_client;
} subscription;

struct client {
    netio_conn conn;
    subscription *subscriptions;
    size_t subscribed;
};

static netio_loop *loop;
static table keys, channels;
static size_t used, expiring;                 // bytes of keys, values, channels; keys that expire
static uint64_t seed[2], commands, published; // of the hash; numbers for INFO

//------------------------------------------------------------------------------------------------
// Memory: each block knows its size, so that `used` is exact
//------------------------------------------------------------------------------------------------

typedef union block {
    size_t size;
    uint64_t align[2];
} block;

// There is no way on without memory that is within the limit: it was set too high.
static void *resize(void *old, size_t size)
{
    block *b = old ? (block *)old - 1 : NULL;
    size_t before = b ? b->size : 0;
    b = realloc(b, sizeof *b + size);
    if (!b) {
        fprintf(stderr, "redis_server: no memory, though only %.0f MiB are used\n",
                (double)used / (1 << 20));
        exit(1);
    }
    used += sizeof *b + size - before;
    b->size = sizeof *b + size;
    return b + 1;
}

static void release(void *data)
{
    block *b = data ? (block *)data - 1 : NULL;
    if (b) used -= b->size;
    free(b);
}

static void *make(size_t size) { return memset(resize(NULL, size), 0, size); }

// Write at `at`, the end or before it; the string ends behind that. Where it was appended to once
// there is room for more, so that many small pieces stay cheap.
static void set_text(string *t, size_t at, netio_buf text)
{
    size_t len = at + text.len;
    if (len > t->cap || len < t->cap / 4) {
        t->cap = at ? 2 * len : len;
        t->data = resize(t->data, t->cap);
    }
    if (text.len > 0) memcpy(t->data + at, text.data, text.len);
    t->len = len;
}

//------------------------------------------------------------------------------------------------
// Tables
//------------------------------------------------------------------------------------------------

#define ROUND(v0, v1, v2, v3)                                                                      \
    (v0 += v1, v1 = (v1 << 13 | v1 >> 51) ^ v0, v0 = v0 << 32 | v0 >> 32, v2 += v3,                \
     v3 = (v3 << 16 | v3 >> 48) ^ v2, v0 += v3, v3 = (v3 << 21 | v3 >> 43) ^ v0, v2 += v1,         \
     v1 = (v1 << 17 | v1 >> 47) ^ v2, v2 = v2 << 32 | v2 >> 32)

// SipHash-1-3 (Aumasson and Bernstein 2012): who does not know the seed cannot find keys that meet.
static uint64_t hash_of(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t v0 = seed[0] ^ 0x736f6d6570736575u, v1 = seed[1] ^ 0x646f72616e646f6du;
    uint64_t v2 = seed[0] ^ 0x6c7967656e657261u, v3 = seed[1] ^ 0x7465646279746573u, m;
    for (size_t left = len; left >= 8; left -= 8, p += 8) {
        memcpy(&m, p, 8);
        v3 ^= m;
        ROUND(v0, v1, v2, v3);
        v0 ^= m;
    }
    m = (uint64_t)len << 56;
    for (size_t i = 0; i < len % 8; i++) m |= (uint64_t)p[i] << 8 * i;
    v3 ^= m;
    ROUND(v0, v1, v2, v3);
    v0 ^= m;
    v2 ^= 0xff;
    for (int i = 0; i < 3; i++) ROUND(v0, v1, v2, v3);
    return v0 ^ v1 ^ v2 ^ v3;
}

static size_t place_of(const table *t, uint64_t hash)
{
    size_t place = (size_t)hash & (t->half - 1);
    return place < t->split ? (size_t)hash & (2 * t->half - 1) : place;
}

static entry *find_in(const table *t, netio_buf name, uint64_t hash)
{
    entry *e = t->count ? t->places[place_of(t, hash)] : NULL;
    while (e && (e->hash != hash || e->len != name.len || memcmp(e->name, name.data, name.len)))
        e = e->next;
    return e;
}

// Cut the next place in two: what belongs into the upper half moves there.
static void grow(table *t)
{
    if (t->split == 0) t->places = resize(t->places, 2 * t->half * sizeof *t->places);
    entry **from = &t->places[t->split], **to = &t->places[t->half + t->split];
    *to = NULL;
    while (*from) {
        entry *e = *from;
        if (!(e->hash & t->half)) {
            from = &e->next;
            continue;
        }
        *from = e->next;
        e->next = *to;
        *to = e;
    }
    if (++t->split < t->half) return;
    t->half *= 2;
    t->split = 0;
}

static entry *add_to(table *t, netio_buf name, uint64_t hash)
{
    entry *e = resize(NULL, sizeof *e + name.len);
    if (!t->places) {
        t->half = 4;
        t->places = make(t->half * sizeof *t->places);
    }
    entry **place = &t->places[place_of(t, hash)];
    e->next = *place;
    e->hash = hash;
    e->value = NULL;
    e->len = name.len;
    if (name.len > 0) memcpy(e->name, name.data, name.len);
    *place = e;
    if (++t->count > t->half + t->split) grow(t);
    return e;
}

static void remove_from(table *t, entry *e)
{
    entry **at = &t->places[place_of(t, e->hash)];
    while (*at != e) at = &(*at)->next;
    *at = e->next;
    t->count--;
    release(e);
}

//------------------------------------------------------------------------------------------------
// Keys, and when they expire
//------------------------------------------------------------------------------------------------

static bool is_over(const item *v)
{
    return v->expires_ms && netio_loop_now_ms(loop) >= v->expires_ms;
}

static string *place_in(const item *v, size_t i)
{
    return &v->list[(v->first + i) & (v->room - 1)];
}

// Makes it an empty one of this type.
static void reset(item *v, int type)
{
    for (size_t i = 0; i < v->count; i++) release(place_in(v, i)->data);
    release(v->list);
    release(v->text.data);
    memset(&v->text, 0, sizeof v->text);
    v->type = type == LIST ? LIST : STRING;
    v->list = NULL;
    v->first = v->count = v->room = 0;
}

static void drop(item *v)
{
    if (v->expires_ms) expiring--;
    netio_timer_stop(v->timer);
    reset(v, STRING);
    remove_from(&keys, v->home);
    release(v);
}

static item *find(netio_buf key)
{
    entry *e = find_in(&keys, key, hash_of(key.data, key.len));
    item *v = e ? e->value : NULL;
    if (!v || !is_over(v)) return v;
    drop(v); // its timer is late
    return NULL;
}

static item *add(netio_buf key, int type)
{
    item *v = make(sizeof *v);
    reset(v, type);
    v->home = add_to(&keys, key, hash_of(key.data, key.len));
    v->home->value = v;
    return v;
}

// Timers count up to 24 days; what lives longer is looked at again then.
static void on_expire(void *user)
{
    item *v = user;
    uint64_t left_ms = v->expires_ms - netio_loop_now_ms(loop);
    int delay_ms = left_ms < INT32_MAX ? (int)left_ms : INT32_MAX;
    if (is_over(v)) drop(v);
    else netio_timer_once(&v->timer, loop, delay_ms, on_expire, v);
    // Without memory for a timer it still expires when somebody asks for it.
}

static void set_expiry(item *v, uint64_t at_ms) // 0: never
{
    expiring += at_ms ? 1 : 0;
    expiring -= v->expires_ms ? 1 : 0;
    v->expires_ms = at_ms;
    netio_timer_stop(v->timer);
    if (at_ms) on_expire(v);
}

//------------------------------------------------------------------------------------------------
// Replies: gathered here, and written as one
//------------------------------------------------------------------------------------------------

static struct {
    size_t len;
    bool over; // it did not fit
    char data[REPLY_MOST];
} reply;

static void put(const void *data, size_t len)
{
    if (len > sizeof reply.data - reply.len) reply.over = true;
    if (reply.over) return;
    if (len > 0) memcpy(reply.data + reply.len, data, len);
    reply.len += len;
}

static void put_head(unsigned type, int64_t number)
{
    char head[RESP_HEAD_MAX];
    put(head, resp_put_head(head, type, number));
}

static void put_integer(int64_t number) { put_head(RESP_INTEGER, number); }
static void put_array(size_t count) { put_head(RESP_ARRAY, (int64_t)count); }
static void put_null(void) { put("$-1\r\n", 5); }
static void put_ok(void) { put("+OK\r\n", 5); }

static void put_bulk(const void *data, size_t len)
{
    put_head(RESP_BULK, (int64_t)len);
    put(data, len);
    put("\r\n", 2);
}

static void put_word(const char *word) { put_bulk(word, strlen(word)); }

// One line, whatever is in it.
static void put_error(const char *format, ...)
{
    char line[256] = "-";
    va_list args;
    va_start(args, format);
    vsnprintf(line + 1, sizeof line - 3, format, args);
    va_end(args);
    for (char *c = line; *c; c++)
        if (*c < ' ' || *c > '~') *c = '?';
    put(line, strlen(line));
    put("\r\n", 2);
}

static bool send_reply(client *to)
{
    int err = netio_conn_write(to->conn, reply.data, reply.len);
    if (err == NETIO_ENOBUFS || err == NETIO_ENOMEM) {
        fprintf(stderr, "client %u does not read: cut off\n", (unsigned)netio_conn_id(to->conn));
        netio_conn_abort(to->conn);
    }
    return err == 0;
}

//------------------------------------------------------------------------------------------------
// What commands have in common
//------------------------------------------------------------------------------------------------

typedef struct call {
    client *from;
    bool quit;    // close behind the reply
    size_t count; // of args, the command's name included
    netio_buf args[ARGS_MOST];
} call;

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c; }

static bool is_word(netio_buf arg, const char *word) // case aside; `word` is in lower case
{
    for (size_t i = 0; i < arg.len; i++)
        if (!word[i] || lower(((const char *)arg.data)[i]) != word[i]) return false;
    return !word[arg.len];
}

static bool get_integer(netio_buf arg, int64_t *out)
{
    if (resp_integer(arg.data, arg.len, out)) return true;
    put_error("ERR value is not an integer or out of range");
    return false;
}

// The value of a key; *out NULL: there is none. false: it has another type, and that is said.
static bool look_up(item **out, netio_buf key, int type)
{
    *out = find(key);
    if (!*out || (int)(*out)->type == type) return true;
    put_error("WRONGTYPE the key holds another kind of value");
    return false;
}

static bool has_room(size_t more)
{
    if ((double)(keys.count + more) <= keys_max) return true;
    put_error("OOM there are %.0f keys, as many as may be", (double)keys.count);
    return false;
}

// The same, but a missing one is made.
static bool look_up_or_add(item **out, netio_buf key, int type)
{
    if (!look_up(out, key, type) || (!*out && !has_room(1))) return false;
    if (!*out) *out = add(key, type);
    return true;
}

// Whether the text is what the pattern says: * any, ? one, \ the next as it is. Goes back to the
// last star only, so it looks at most at the product of both lengths; each look takes one of the
// steps, and without any it gives up.
static bool matches(netio_buf pattern, const char *t, size_t len, size_t *steps)
{
    const char *p = pattern.data, *p_end = p + pattern.len, *t_end = t + len;
    const char *star = NULL, *again = NULL;
    for (; t<t_end && * steps> 0; --*steps) {
        if (p < p_end && *p == '*') {
            star = ++p;
            again = t;
            continue;
        }
        const char *as_is = p_end - p > 1 && *p == '\\' ? p + 1 : p;
        if (p < p_end && (*as_is == *t || (*p == '?'))) {
            p = as_is + 1;
            t++;
        } else if (star) {
            p = star;
            t = ++again;
        } else {
            return false;
        }
    }
    while (p < p_end && *p == '*') p++;
    return t == t_end && p == p_end;
}

//------------------------------------------------------------------------------------------------
// Commands: strings
//------------------------------------------------------------------------------------------------

static void put_string(const item *v)
{
    if (v) put_bulk(v->text.data, v->text.len);
    else put_null();
}

// A time from now, in units of so many milliseconds; *out 0: it is over.
static bool get_moment(const call *c, netio_buf arg, int64_t unit, uint64_t *out)
{
    int64_t n, most = INT64_MAX / 2 / unit;
    if (!get_integer(arg, &n)) return false;
    *out = n > 0 ? netio_loop_now_ms(loop) + (uint64_t)(n < most ? n * unit : 0) : 0;
    if (n > -most && n < most && (n > 0 || !is_word(c->args[0], "set"))) return true;
    put_error("ERR invalid expire time in '%.*s' command", (int)c->args[0].len,
              (const char *)c->args[0].data);
    return false;
}

static void do_set(call *c)
{
    bool nx = false, xx = false, keep = false;
    uint64_t at_ms = 0;
    for (size_t i = 3; i < c->count; i++) {
        bool ex = is_word(c->args[i], "ex"), px = is_word(c->args[i], "px");
        if ((ex || px) && at_ms == 0 && !keep && i + 1 < c->count) {
            if (!get_moment(c, c->args[++i], ex ? 1000 : 1, &at_ms)) return;
        } else if (is_word(c->args[i], "nx") && !xx) {
            nx = true;
        } else if (is_word(c->args[i], "xx") && !nx) {
            xx = true;
        } else if (is_word(c->args[i], "keepttl") && at_ms == 0) {
            keep = true;
        } else {
            put_error("ERR syntax error");
            return;
        }
    }
    item *v = find(c->args[1]);
    if (v ? nx : xx) {
        put_null();
        return;
    }
    if (!v && !has_room(1)) return;
    if (!v) v = add(c->args[1], STRING);
    if (v->type != STRING) reset(v, STRING);
    set_text(&v->text, 0, c->args[2]);
    if (!keep) set_expiry(v, at_ms);
    put_ok();
}

static void do_get(call *c)
{
    item *v;
    if (look_up(&v, c->args[1], STRING)) put_string(v);
}

static void do_mset(call *c)
{
    if (c->count % 2 == 0) put_error("ERR wrong number of arguments for 'mset' command");
    if (c->count % 2 == 0 || !has_room(c->count / 2)) return;
    for (size_t i = 1; i < c->count; i += 2) {
        item *v = find(c->args[i]);
        if (!v) v = add(c->args[i], STRING);
        if (v->type != STRING) reset(v, STRING);
        set_text(&v->text, 0, c->args[i + 1]);
        set_expiry(v, 0);
    }
    put_ok();
}

static void do_mget(call *c)
{
    put_array(c->count - 1);
    for (size_t i = 1; i < c->count; i++) {
        item *v = find(c->args[i]);
        put_string(v && v->type == STRING ? v : NULL);
    }
}

static void do_append(call *c)
{
    item *v;
    if (!look_up_or_add(&v, c->args[1], STRING)) return;
    if (v->text.len + c->args[2].len > VALUE_MOST) {
        put_error("ERR the string would be longer than %d bytes", VALUE_MOST);
        return;
    }
    set_text(&v->text, v->text.len, c->args[2]);
    put_integer((int64_t)v->text.len);
}

static void do_strlen(call *c)
{
    item *v;
    if (look_up(&v, c->args[1], STRING)) put_integer(v ? (int64_t)v->text.len : 0);
}

static void do_count(call *c) // INCR, INCRBY, DECR, DECRBY
{
    netio_buf now = {"0", 1};
    char digits[24];
    int64_t n, by = 1;
    item *v = NULL;
    if (c->count > 2 && !get_integer(c->args[2], &by)) return;
    bool down = lower(*(const char *)c->args[0].data) == 'd';
    bool over = down && by == INT64_MIN; // it has no opposite
    if (!over && !look_up(&v, c->args[1], STRING)) return;
    if (!over && v) now = (netio_buf){v->text.data, v->text.len};
    if (!get_integer(now, &n)) return;
    if (down && !over) by = -by;
    if (over || (by > 0 ? n > INT64_MAX - by : n < INT64_MIN - by)) {
        put_error("ERR increment or decrement would overflow");
        return;
    }
    if (!v && !look_up_or_add(&v, c->args[1], STRING)) return;
    int len = snprintf(digits, sizeof digits, "%lld", (long long)(n + by));
    set_text(&v->text, 0, (netio_buf){digits, (size_t)len});
    put_integer(n + by);
}

//------------------------------------------------------------------------------------------------
// Commands: keys
//------------------------------------------------------------------------------------------------

static void do_del(call *c)
{
    int64_t count = 0;
    for (size_t i = 1; i < c->count; i++) {
        item *v = find(c->args[i]);
        if (v) drop(v);
        count += v != NULL;
    }
    put_integer(count);
}

static void do_exists(call *c)
{
    int64_t count = 0;
    for (size_t i = 1; i < c->count; i++) count += find(c->args[i]) != NULL;
    put_integer(count);
}

static void do_expire(call *c)
{
    uint64_t at_ms;
    if (!get_moment(c, c->args[2], is_word(c->args[0], "expire") ? 1000 : 1, &at_ms)) return;
    item *v = find(c->args[1]);
    put_integer(v != NULL);
    if (v && at_ms) set_expiry(v, at_ms);
    else if (v) drop(v);
}

static void do_ttl(call *c)
{
    const item *v = find(c->args[1]);
    uint64_t left_ms = v && v->expires_ms ? v->expires_ms - netio_loop_now_ms(loop) : 0;
    if (!v || !v->expires_ms) put_integer(v ? -1 : -2);
    else put_integer((int64_t)(is_word(c->args[0], "ttl") ? (left_ms + 500) / 1000 : left_ms));
}

static void do_persist(call *c)
{
    item *v = find(c->args[1]);
    bool had = v && v->expires_ms;
    if (had) set_expiry(v, 0);
    put_integer(had);
}

static void do_keys(call *c)
{
    for (int pass = 0; pass < 2; pass++) { // their number goes first
        size_t steps = STEPS_MOST, count = 0;
        for (size_t i = 0; i < keys.half + keys.split && steps > 0; i++) {
            for (const entry *e = keys.places[i]; e && steps > 0; e = e->next) {
                bool hit = matches(c->args[1], e->name, e->len, &steps) && !is_over(e->value);
                if (!hit) continue;
                if (pass == 1) put_bulk(e->name, e->len);
                count++;
            }
        }
        if (steps == 0) {
            put_error("ERR too much to look at: more than %d steps", STEPS_MOST);
            return;
        }
        if (pass == 0) put_array(count);
    }
}

static void do_flushall(call *c)
{
    (void)c;
    for (size_t i = 0; i < keys.half + keys.split; i++) {
        while (keys.places[i]) drop(keys.places[i]->value);
    }
    release(keys.places);
    memset(&keys, 0, sizeof keys);
    put_ok();
}

static void do_dbsize(call *c)
{
    (void)c;
    put_integer((int64_t)keys.count);
}

//------------------------------------------------------------------------------------------------
// Commands: lists
//------------------------------------------------------------------------------------------------

static void push(item *v, netio_buf text, bool front)
{
    if (v->count == v->room) {
        size_t room = v->room ? 2 * v->room : 4;
        string *list = resize(NULL, room * sizeof *list);
        for (size_t i = 0; i < v->count; i++) list[i] = *place_in(v, i);
        release(v->list);
        v->list = list;
        v->first = 0;
        v->room = room;
    }
    if (front) v->first = (v->first + v->room - 1) & (v->room - 1);
    string *place = place_in(v, front ? 0 : v->count);
    memset(place, 0, sizeof *place);
    set_text(place, 0, text);
    v->count++;
}

static void do_push(call *c)
{
    item *v;
    if (!look_up_or_add(&v, c->args[1], LIST)) return;
    for (size_t i = 2; i < c->count; i++) push(v, c->args[i], is_word(c->args[0], "lpush"));
    put_integer((int64_t)v->count);
}

static void do_pop(call *c)
{
    item *v;
    bool front = is_word(c->args[0], "lpop");
    if (!look_up(&v, c->args[1], LIST)) return;
    if (!v) {
        put_null();
        return;
    }
    string *place = place_in(v, front ? 0 : v->count - 1);
    put_bulk(place->data, place->len);
    release(place->data);
    if (front) v->first = (v->first + 1) & (v->room - 1);
    if (--v->count == 0) drop(v); // a list without items is no key
}

static void do_llen(call *c)
{
    item *v;
    if (look_up(&v, c->args[1], LIST)) put_integer(v ? (int64_t)v->count : 0);
}

static void do_lrange(call *c)
{
    int64_t from, to;
    item *v;
    if (!get_integer(c->args[2], &from) || !get_integer(c->args[3], &to)) return;
    if (!look_up(&v, c->args[1], LIST)) return;
    int64_t count = v ? (int64_t)v->count : 0; // below 0 counts from the end
    if (from < 0) from = from < -count ? 0 : from + count;
    if (to < 0) to = to < -count ? -1 : to + count;
    if (to >= count) to = count - 1;
    put_array(from > to ? 0 : (size_t)(to - from) + 1);
    for (; from <= to && !reply.over; from++) {
        const string *place = place_in(v, (size_t)from);
        put_bulk(place->data, place->len);
    }
}

//------------------------------------------------------------------------------------------------
// Commands: publish and subscribe
//------------------------------------------------------------------------------------------------

static void put_news(const client *me, const char *what, const netio_buf *channel)
{
    put_array(3);
    put_word(what);
    if (channel) put_bulk(channel->data, channel->len);
    else put_null();
    put_integer((int64_t)me->subscribed);
}

static subscription **subscription_of(client *me, netio_buf channel)
{
    subscription **at = &me->subscriptions;
    while (*at && ((*at)->channel->len != channel.len ||
                   memcmp((*at)->channel->name, channel.data, channel.len) != 0))
        at = &(*at)->next_of_client;
    return at;
}

static void do_subscribe(call *c)
{
    client *me = c->from;
    for (size_t i = 1; i < c->count; i++) {
        uint64_t hash = hash_of(c->args[i].data, c->args[i].len);
        if (!*subscription_of(me, c->args[i])) {
            if (me->subscribed == CHANNELS_MOST) {
                put_error("ERR more than %d channels", CHANNELS_MOST);
                return;
            }
            subscription *s = make(sizeof *s);
            s->who = me;
            s->channel = find_in(&channels, c->args[i], hash);
            if (!s->channel) s->channel = add_to(&channels, c->args[i], hash);
            s->next = s->channel->value;
            s->channel->value = s;
            s->next_of_client = me->subscriptions;
            me->subscriptions = s;
            me->subscribed++;
        }
        put_news(me, "subscribe", &c->args[i]);
    }
}

static void unsubscribe(subscription **of_client)
{
    subscription *s = *of_client, *first = s->channel->value, **at = &first;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    s->channel->value = first;
    if (!first) remove_from(&channels, s->channel);
    *of_client = s->next_of_client;
    s->who->subscribed--;
    release(s);
}

static void do_unsubscribe(call *c)
{
    client *me = c->from;
    for (size_t i = 1; i < c->count; i++) {
        subscription **s = subscription_of(me, c->args[i]);
        if (*s) unsubscribe(s);
        put_news(me, "unsubscribe", &c->args[i]);
    }
    if (c->count == 1 && !me->subscriptions) put_news(me, "unsubscribe", NULL);
    while (c->count == 1 && me->subscriptions) {
        entry *channel = me->subscriptions->channel;
        netio_buf name = {channel->name, channel->len};
        me->subscribed--; // said before the name is gone
        put_news(me, "unsubscribe", &name);
        me->subscribed++;
        unsubscribe(&me->subscriptions);
    }
}

static void do_publish(call *c)
{
    entry *channel = find_in(&channels, c->args[1], hash_of(c->args[1].data, c->args[1].len));
    int64_t count = 0;
    put_array(3);
    put_word("message");
    put_bulk(c->args[1].data, c->args[1].len);
    put_bulk(c->args[2].data, c->args[2].len);
    // Who is cut off here is still in the list: on_close comes from the loop.
    for (subscription *s = channel ? channel->value : NULL; s; s = s->next)
        count += send_reply(s->who);
    reply.len = 0;
    published++;
    put_integer(count);
}

//------------------------------------------------------------------------------------------------
// Commands: the connection, the server
//------------------------------------------------------------------------------------------------

static void do_ping(call *c)
{
    netio_buf extra = c->count > 1 ? c->args[1] : (netio_buf){"", 0};
    if (c->from->subscribed) {
        put_array(2);
        put_word("pong");
    }
    if (c->from->subscribed || c->count > 1) put_bulk(extra.data, extra.len);
    else put("+PONG\r\n", 7);
}

static void do_echo(call *c) { put_bulk(c->args[1].data, c->args[1].len); }

static void do_select(call *c)
{
    int64_t n;
    if (!get_integer(c->args[1], &n)) return;
    if (n == 0) put_ok();
    else put_error("ERR there is one database, number 0");
}

static void do_quit(call *c)
{
    c->quit = true;
    put_ok();
}

static void do_client(call *c)
{
    if (is_word(c->args[1], "id")) put_integer((int64_t)netio_conn_id(c->from->conn));
    else if (is_word(c->args[1], "setname") || is_word(c->args[1], "setinfo")) put_ok();
    else put_error("ERR unknown subcommand of 'client'"); // names are taken, and not kept
}

static void do_config(call *c)
{
    char memory[32];
    const char *const known[][2] = {{"maxmemory", memory}, {"save", ""}, {"appendonly", "no"}};
    int i = 0;
    snprintf(memory, sizeof memory, "%.0f", memory_mib * (1 << 20));
    while (i < 3 && !is_word(c->args[2], known[i][0])) i++;
    if (!is_word(c->args[1], "get")) {
        put_error("ERR of 'config' only GET is known");
    } else if (i == 3) {
        put_array(0);
    } else {
        put_array(2);
        put_word(known[i][0]);
        put_word(known[i][1]);
    }
}

static void do_info(call *c)
{
    char lines[1024];
    netio_stats s;
    (void)c;
    netio_loop_stats(loop, &s);
    const struct {
        const char *name;
        double number;
    } known[] = {
        {"uptime_in_seconds", (double)((netio_loop_now_ms(loop) - s.opened_ms) / 1000)},
        {"connected_clients", (double)s.active},
        {"rejected_connections", (double)s.refused},
        {"used_memory", (double)used},
        {"total_commands_processed", (double)commands},
        {"total_reads", (double)s.reads},
        {"total_writes", (double)s.writes},
        {"total_net_input_bytes", (double)s.bytes_in},
        {"total_net_output_bytes", (double)s.bytes_out},
        {"pubsub_channels", (double)channels.count},
        {"published_messages", (double)published},
        {"keys", (double)keys.count},
        {"expires", (double)expiring},
    };
    int len = snprintf(lines, sizeof lines, "netio_version:%s\r\n", NETIO_VERSION);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        len += snprintf(lines + len, sizeof lines - (size_t)len, "%s:%.0f\r\n", known[i].name,
                        known[i].number);
    }
    put_bulk(lines, (size_t)len);
}

static void do_command(call *c);

enum { ADDS = 1, SUBSCRIBED = 2 }; // refused when memory is full; allowed to who is subscribed

// clang-format off
static const struct {
    const char *name;
    size_t least, most; // args, the name included; most 0: any number
    unsigned flags;
    void (*run)(call *c);
} table_of_commands[] = {
    {"get", 2, 2, 0, do_get},             {"set", 3, 0, ADDS, do_set},
    {"append", 3, 3, ADDS, do_append},    {"client", 2, 0, 0, do_client},
    {"command", 1, 0, 0, do_command},     {"config", 3, 3, 0, do_config},
    {"dbsize", 1, 1, 0, do_dbsize},       {"decr", 2, 2, ADDS, do_count},
    {"decrby", 3, 3, ADDS, do_count},     {"del", 2, 0, 0, do_del},
    {"echo", 2, 2, 0, do_echo},           {"exists", 2, 0, 0, do_exists},
    {"expire", 3, 3, 0, do_expire},       {"flushall", 1, 2, 0, do_flushall},
    {"incr", 2, 2, ADDS, do_count},       {"incrby", 3, 3, ADDS, do_count},
    {"info", 1, 2, 0, do_info},           {"keys", 2, 2, 0, do_keys},
    {"llen", 2, 2, 0, do_llen},           {"lpop", 2, 2, 0, do_pop},
    {"lpush", 3, 0, ADDS, do_push},       {"lrange", 4, 4, 0, do_lrange},
    {"mget", 2, 0, 0, do_mget},           {"mset", 3, 0, ADDS, do_mset},
    {"persist", 2, 2, 0, do_persist},     {"pexpire", 3, 3, 0, do_expire},
    {"ping", 1, 2, SUBSCRIBED, do_ping},  {"pttl", 2, 2, 0, do_ttl},
    {"publish", 3, 3, 0, do_publish},     {"quit", 1, 1, SUBSCRIBED, do_quit},
    {"rpop", 2, 2, 0, do_pop},            {"rpush", 3, 0, ADDS, do_push},
    {"select", 2, 2, 0, do_select},       {"strlen", 2, 2, 0, do_strlen},
    {"ttl", 2, 2, 0, do_ttl},
    {"subscribe", 2, 0, ADDS | SUBSCRIBED, do_subscribe},
    {"unsubscribe", 1, 0, SUBSCRIBED, do_unsubscribe},
};
// clang-format on
enum { COMMANDS = sizeof table_of_commands / sizeof *table_of_commands };

static void do_command(call *c)
{
    if (c->count == 2 && is_word(c->args[1], "count")) put_integer(COMMANDS);
    else put_array(0); // no descriptions
}

static void obey(call *c)
{
    netio_buf name = c->args[0];
    int i = 0;
    while (i < COMMANDS && !is_word(name, table_of_commands[i].name)) i++;
    commands++;
    if (i == COMMANDS) {
        put_error("ERR unknown command '%.*s'", name.len < 64 ? (int)name.len : 64,
                  (const char *)name.data);
    } else if (c->count < table_of_commands[i].least ||
               (table_of_commands[i].most && c->count > table_of_commands[i].most)) {
        put_error("ERR wrong number of arguments for '%s' command", table_of_commands[i].name);
    } else if (c->from->subscribed && !(table_of_commands[i].flags & SUBSCRIBED)) {
        put_error("ERR '%s' is not allowed while subscribed", table_of_commands[i].name);
    } else if ((table_of_commands[i].flags & ADDS) && (double)used > memory_mib * (1 << 20)) {
        put_error("OOM '%s' is not allowed when used memory > 'maxmemory'",
                  table_of_commands[i].name);
    } else {
        table_of_commands[i].run(c);
    }
}

//------------------------------------------------------------------------------------------------
// Clients
//------------------------------------------------------------------------------------------------

static void begin_reply(void)
{
    reply.len = 0;
    reply.over = false;
}

static void on_frame(netio_conn c, const netio_frame *frame)
{
    static call now;
    ptrdiff_t count = resp_args(frame, now.args, ARGS_MOST);
    now.from = netio_conn_user(c);
    now.quit = false;
    now.count = count > 0 ? (size_t)count : 0;
    if (frame->type == RESP_INLINE && count > 0 &&
        (is_word(now.args[0], "post") || is_word(now.args[0], "host:"))) {
        netio_conn_abort(c); // a browser that some page made talk to us: nothing of it is obeyed
        return;
    }
    begin_reply();
    if (count < 0) put_error("ERR more than %d words", ARGS_MOST);
    else obey(&now);
    if (reply.over) {
        begin_reply();
        put_error("ERR the reply would be longer than %d bytes", REPLY_MOST);
    }
    if (send_reply(now.from) && now.quit) netio_conn_close(c);
}

// What cannot be read is answered, behind the answers to all that was good, and closed by netio.
static void on_bad_frame(netio_conn c, const netio_frame *frame, int err)
{
    (void)frame;
    if (err == NETIO_ETRUNCATED) return; // the client ended in the middle of a command
    begin_reply();
    put_error("ERR Protocol error: %s",
              err == NETIO_EMSGSIZE ? "command too large" : "malformed command");
    send_reply(netio_conn_user(c));
}

static void on_timeout(netio_conn c, int which)
{
    const client *me = netio_conn_user(c);
    if (which != NETIO_TIMEOUT_IDLE) netio_conn_abort(c);
    else if (!me->subscribed) netio_conn_close(c);
}

static void on_open(netio_conn c)
{
    client *me = make(sizeof *me);
    me->conn = c;
    netio_conn_set_user(c, me);
}

static void on_close(netio_conn c, int err)
{
    client *me = netio_conn_user(c);
    (void)err;
    if (!me) return;
    while (me->subscriptions) unsubscribe(&me->subscriptions);
    release(me);
}

static void on_signal(void *user)
{
    (void)user;
    netio_loop_finish(loop, GRACE_MS);
}

//------------------------------------------------------------------------------------------------
// The server
//------------------------------------------------------------------------------------------------

// Random bytes from the OS, by the one call of netio's that gives some: a WebSocket client's key.
static int make_seed(void)
{
    char request[256], key[25];
    ptrdiff_t n = netio_ws_request(request, sizeof request, "seed", "/", key);
    if (n > 0) n = netio_base64_decode(seed, sizeof seed, key, strlen(key));
    return n < 0 ? (int)n : 0;
}

static int serve(const char *address)
{
    static const resp_limits limits = {.items_max = ARGS_MOST, .bulk_max = VALUE_MOST};
    static const netio_handler redis = {.on_open = on_open,
                                        .on_timeout = on_timeout,
                                        .on_close = on_close,
                                        .on_frame = on_frame,
                                        .on_bad_frame = on_bad_frame};
    netio_listener_opts opts = {0};
    netio_listener listener;
    netio_addr local;
    char bound[NETIO_ADDR_TEXT];
    opts.conn_max = (size_t)clients_max;
    opts.refusal = "-ERR max number of clients reached\r\n";
    opts.conn.framing = resp_commands(&limits, COMMAND_MOST);
    opts.conn.idle_timeout_ms = (int)(idle_s * 1000);
    opts.conn.write_queue_max = QUEUE_MOST;

    int err = make_seed();
    if (err == 0) err = netio_loop_create(&loop, NULL);
    if (err == 0) err = netio_listener_open(&listener, loop, address, &redis, &opts);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGINT, on_signal, NULL);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGTERM, on_signal, NULL);
    if (err == 0) err = netio_listener_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, bound, sizeof bound);
    if (err >= 0) {
        printf("listening on %s\n", bound);
        fflush(stdout);
        err = netio_loop_run(loop);
    }
    if (keys.count) do_flushall(NULL);
    netio_loop_destroy(loop);
    release(channels.places);
    if (err < 0) fprintf(stderr, "redis_server: %s: %s\n", address, netio_strerror(err));
    return err < 0;
}

//------------------------------------------------------------------------------------------------
// The client
//------------------------------------------------------------------------------------------------

// What a server says does not steer the terminal.
static void print_text(netio_buf t)
{
    for (size_t i = 0; i < t.len; i++) {
        unsigned char c = ((const unsigned char *)t.data)[i];
        if (c >= ' ' && c <= '~' && c != '\\') putchar(c);
        else printf("\\x%02x", c);
    }
}

static void print_value(resp_reader *r, int depth) // at most RESP_DEPTH_MAX
{
    resp_value v;
    if (!resp_next(r, &v)) return;
    printf("%*s%s", 2 * depth, "", v.type == RESP_INTEGER ? "(integer) " : "");
    if (v.type == RESP_ERROR) printf("(error) ");
    if (v.type == RESP_NULL) printf("(nil)");
    if (v.type == RESP_ARRAY) printf("(array of %lld)", (long long)v.number);
    else print_text(v.text);
    putchar('\n');
    for (int64_t i = 0; v.type == RESP_ARRAY && i < v.number; i++) print_value(r, depth + 1);
}

static int converse(netio_stream *st, netio_buf *args, size_t count, bool *refused)
{
    static const resp_limits limits = {
        .items_max = 1 << 20, .bulk_max = 64 << 20, .depth_max = RESP_DEPTH_MAX};
    netio_framing framing = resp_replies(&limits, 64 << 20);
    netio_frame frame = {.type = RESP_ARRAY};
    netio_decoder d;
    size_t room = 0;
    for (size_t i = 0; i < count; i++) room += args[i].len + RESP_HEAD_MAX + 2;
    char *items = malloc(room);
    int err = items ? netio_decoder_init(&d, framing, NULL, 0) : NETIO_ENOMEM;
    if (err < 0) goto out;
    frame.data = (const uint8_t *)items;
    frame.len = (size_t)resp_put_args(items, room, args, count);
    err = netio_stream_write_frame(st, &framing, &frame, 5000);
    do { // a subscription goes on and on
        if (err == 0) err = netio_stream_read_frame(st, &d, &frame, 30000);
        if (err < 0) break;
        resp_reader r = resp_read(&frame);
        print_value(&r, 0);
        fflush(stdout);
        *refused = frame.type == RESP_ERROR;
    } while (is_word(args[0], "subscribe"));
    netio_decoder_free(&d);
out:
    free(items);
    return err;
}

static int ask(const char *address, char **words, size_t count)
{
    netio_buf args[ARGS_MOST];
    netio_socket s;
    bool refused = false;
    if (count > ARGS_MOST) count = ARGS_MOST;
    for (size_t i = 0; i < count; i++) {
        args[i].data = words[i];
        args[i].len = strlen(words[i]);
    }
    int err = netio_connect(&s, address, NULL, 5000);
    if (err == 0) {
        netio_stream st = netio_stream_from_socket(s);
        err = converse(&st, args, count, &refused);
        netio_stream_close(&st);
    }
    if (err < 0) fprintf(stderr, "redis_server: %s: %s\n", address, netio_strerror(err));
    return err < 0 || refused;
}

static int usage(void)
{
    fprintf(stderr, "usage: redis_server [OPTION NUMBER]... [ADDRESS]\n"
                    "       redis_server call HOST:PORT COMMAND [ARG]...\n");
    for (int i = 0; i < OPTIONS; i++) {
        fprintf(stderr, "  %-9s  %s (%g)\n", options[i].name, options[i].what, *options[i].value);
    }
    return 2;
}

int main(int argc, char **argv)
{
    const char *address = "127.0.0.1:6379";
    if (argc >= 4 && strcmp(argv[1], "call") == 0) return ask(argv[2], argv + 3, (size_t)argc - 3);
    for (int i = 1; i < argc; i++) {
        int k = 0;
        if (argv[i][0] != '-') {
            address = argv[i];
            continue;
        }
        while (k < OPTIONS && strcmp(argv[i], options[k].name) != 0) k++;
        if (k == OPTIONS || ++i == argc) return usage();
        *options[k].value = strtod(argv[i], NULL);
        if (!(*options[k].value > 0.01 && *options[k].value <= options[k].max)) return usage();
    }
    return serve(address);
}
