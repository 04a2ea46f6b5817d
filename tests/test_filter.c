// BACKENDS: all memory
//
// Filters between socket and handler: one that changes bytes, one whose handshake holds writes
// back, one that cuts the stream into records and has an end of its own, stacks of them, ones that
// fail at every place; filters added in mid-stream.
#include "engine.h"

//================================================================================================
// The filters of these tests
//================================================================================================

static struct {
    int refs, opens, closes, timers, explained;
} tally;

static void count_ref(void *arg) { (void)arg, tally.refs++; }
static void count_unref(void *arg) { (void)arg, tally.refs--; }

// --- xor: every byte changes, none is added. `arg` is the key -----------------------------------

static void flip(unsigned char *out, const void *data, size_t len, unsigned char key)
{
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0; i < len; i++) out[i] = (unsigned char)(p[i] ^ key);
}

typedef struct xor_self {
    unsigned char key;
} xor_self;

static unsigned char scratch[1 << 19];

static int xor_open(netio_filter_io *io, void *arg)
{
    xor_self *x = (xor_self *)malloc(sizeof *x);
    tally.opens++;
    if (!x) return NETIO_ENOMEM;
    x->key = *(unsigned char *)arg;
    netio_filter_set_self(io, x);
    return netio_filter_ready(io);
}

static int xor_received(netio_filter_io *io, const void *data, size_t len)
{
    const xor_self *x = (const xor_self *)netio_filter_self(io);
    const char *p = (const char *)data;
    for (size_t n; len > 0; p += n, len -= n) {
        n = len < sizeof scratch ? len : sizeof scratch;
        flip(scratch, p, n, x->key);
        int err = netio_filter_deliver(io, scratch, n);
        if (err < 0) return err;
    }
    return 0;
}

static int xor_written(netio_filter_io *io, const netio_buf *bufs, size_t count)
{
    const xor_self *x = (const xor_self *)netio_filter_self(io);
    for (size_t i = 0; i < count; i++) {
        const char *p = (const char *)bufs[i].data;
        size_t len = bufs[i].len;
        for (size_t n; len > 0; p += n, len -= n) {
            n = len < sizeof scratch ? len : sizeof scratch;
            flip(scratch, p, n, x->key);
            int err = netio_filter_emit(io, scratch, n);
            if (err < 0) return err;
        }
    }
    return 0;
}

static void free_self(netio_filter_io *io)
{
    tally.closes++;
    free(netio_filter_self(io));
    netio_filter_set_self(io, NULL);
}

static const netio_filter_ops xor_ops = {.name = "xor",
                                         .ref = count_ref,
                                         .unref = count_unref,
                                         .open = xor_open,
                                         .received = xor_received,
                                         .written = xor_written,
                                         .close = free_self};

// --- greet: each side says HELO and is ready when it has heard it -------------------------------

typedef struct greet_self {
    size_t heard;
    bool dialed;
} greet_self;

static int greet_open(netio_filter_io *io, void *arg)
{
    greet_self *g = (greet_self *)calloc(1, sizeof *g);
    tally.opens++;
    if (!g) return NETIO_ENOMEM;
    g->dialed = netio_filter_dialed(io);
    netio_filter_set_self(io, g);
    if (arg) return 0; // this one keeps its mouth shut
    return netio_filter_emit(io, "HELO", 4);
}

static int greet_received(netio_filter_io *io, const void *data, size_t len)
{
    greet_self *g = (greet_self *)netio_filter_self(io);
    const char *p = (const char *)data;
    for (; len > 0 && g->heard < 4; p++, len--) {
        if (*p != "HELO"[g->heard]) return NETIO_EPROTO;
        if (++g->heard < 4) continue;
        int err = netio_filter_ready(io);
        if (err < 0) return err;
    }
    return len ? netio_filter_deliver(io, p, len) : 0;
}

static const netio_filter_ops greet_ops = {.name = "greet",
                                           .ref = count_ref,
                                           .unref = count_unref,
                                           .open = greet_open,
                                           .received = greet_received,
                                           .close = free_self};
static const netio_filter_ops clean_greet_ops = {.name = "greet from clean",
                                                 .ref = count_ref,
                                                 .unref = count_unref,
                                                 .open = greet_open,
                                                 .received = greet_received,
                                                 .close = free_self,
                                                 .from_clean = true};

// --- record: two bytes of length, then so many bytes; a length of 0 is the end ------------------

typedef struct record_self {
    unsigned char head[2];
    size_t have, left;
    bool over;
} record_self;

static int record_open(netio_filter_io *io, void *arg)
{
    record_self *r = (record_self *)calloc(1, sizeof *r);
    (void)arg;
    tally.opens++;
    if (!r) return NETIO_ENOMEM;
    netio_filter_set_self(io, r);
    return netio_filter_ready(io);
}

static int record_received(netio_filter_io *io, const void *data, size_t len)
{
    record_self *r = (record_self *)netio_filter_self(io);
    const unsigned char *p = (const unsigned char *)data;
    while (len > 0) {
        if (r->over) return NETIO_EPROTO;
        if (r->left == 0) {
            r->head[r->have++] = *p++;
            len--;
            if (r->have < 2) continue;
            r->have = 0;
            r->left = (size_t)r->head[0] << 8 | r->head[1];
            if (r->left > 0) continue;
            r->over = true;
            int err = netio_filter_deliver_end(io);
            if (err < 0) return err;
            continue;
        }
        size_t n = len < r->left ? len : r->left;
        int err = netio_filter_deliver(io, p, n);
        if (err < 0) return err;
        p += n;
        len -= n;
        r->left -= n;
    }
    return 0;
}

// The wire may end only after the record that says so.
static int record_ended(netio_filter_io *io)
{
    return ((record_self *)netio_filter_self(io))->over ? 0 : NETIO_ETRUNCATED;
}

static int record_written(netio_filter_io *io, const netio_buf *bufs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const unsigned char *p = (const unsigned char *)bufs[i].data;
        for (size_t at = 0, n; at < bufs[i].len; at += n) {
            n = bufs[i].len - at < 1000 ? bufs[i].len - at : 1000;
            unsigned char head[2] = {(unsigned char)(n >> 8), (unsigned char)n};
            int err = netio_filter_emit(io, head, 2);
            if (err == 0) err = netio_filter_emit(io, p + at, n);
            if (err < 0) return err;
        }
    }
    return 0;
}

static int record_shutdown(netio_filter_io *io) { return netio_filter_emit(io, "\0\0", 2); }

static const netio_filter_ops record_ops = {.name = "record",
                                            .ref = count_ref,
                                            .unref = count_unref,
                                            .open = record_open,
                                            .received = record_received,
                                            .ended = record_ended,
                                            .written = record_written,
                                            .shutdown = record_shutdown,
                                            .close = free_self};

// --- all of a filter's calls absent: nothing changes --------------------------------------------

static const netio_filter_ops empty_ops = {.name = "empty"};

static unsigned char key = 0x5A, key2 = 0x33;

static netio_filter filter_of(const netio_filter_ops *ops, void *arg)
{
    netio_filter f;
    f.ops = ops;
    f.arg = arg;
    return f;
}

static void tally_begin(void) { memset(&tally, 0, sizeof tally); }

// Every filter that was opened is closed, and nobody keeps its argument.
static void tally_end(void)
{
    CHECK_EQ(tally.opens, tally.closes);
    CHECK_EQ(0, tally.refs);
}

//================================================================================================
// Bytes through filters
//================================================================================================

// One filter from the beginning and up to two that are added when it opens.
typedef struct stack {
    const char *name;
    const netio_filter_ops *ops[3];
} stack;

static const stack stacks[] = {
    {"empty", {&empty_ops}},
    {"xor", {&xor_ops}},
    {"greet", {&greet_ops}},
    {"record", {&record_ops}},
    {"xor, xor", {&xor_ops, &xor_ops}},
    {"greet, record", {&greet_ops, &record_ops}},
    {"record, greet", {&record_ops, &greet_ops}},
    {"record, xor", {&record_ops, &xor_ops}},
    {"xor, empty, record", {&xor_ops, &empty_ops, &record_ops}},
    {"record, record, greet", {&record_ops, &record_ops, &greet_ops}},
};

static netio_filter nth(const stack *s, int i)
{
    return filter_of(s->ops[i], s->ops[i] == &xor_ops ? (i ? (void *)&key2 : (void *)&key) : NULL);
}

static void add_rest(end *e, int what, const void *data, size_t len)
{
    const stack *s = (const stack *)e->arg;
    (void)data, (void)len;
    if (what != OPENED) return;
    for (int i = 1; i < 3 && s->ops[i]; i++) CHECK_OK(CALL(netio_conn_add_filter(e->c, nth(s, i))));
    if (e->out_len) end_pump(e);
}

static void run_stack(const stack *s, uint64_t len, int small)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.small = small;
    d.dial.conn.read_always = true;
    d.dial.conn.filter = d.listen.conn.filter = nth(s, 0);
    d.a.arg = d.b.arg = (void *)s;
    d.a.on = d.b.on = add_rest;
    d.a.out_seed = d.a.seed = 71;
    d.a.out_len = len;
    d.a.then = 's';
    d.b.echo = true;
    duo_start(&d, &end_all, &end_plain);
    test_span span = test_span_begin(d.loop);
    while (!d.a.closed || !d.b.closed) test_span_turn(&span, __FILE__, __LINE__, s->name);
    if (d.a.got != len || d.a.err || d.b.err)
        printf("    %s: %lu bytes of %lu, %s and %s, %s and %s\n", s->name, (unsigned long)d.a.got,
               (unsigned long)len, d.a.log, d.b.log, netio_errname(d.a.err),
               netio_errname(d.b.err));
    CHECK_EQ(len, d.a.got);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    CHECK_EQ(1, d.a.ended);
    CHECK_EQ(len, d.b.got);
    CHECK_EQ(s->ops[1] != NULL, d.a.secured > 0);
    duo_close(&d);
    tally_end();
}

TEST(filter, stacks_carry_all_bytes_and_both_ends)
{
    for (size_t i = 0; i < sizeof stacks / sizeof stacks[0]; i++) {
        run_stack(&stacks[i], 1, 0);
        run_stack(&stacks[i], 500000, 0);
        run_stack(&stacks[i], 200000, 16384);
    }
}

TEST(filter, changes_what_is_on_the_wire)
{
    duo d;
    netio_socket s;
    end e;
    netio_conn_opts opts;
    netio_loop *loop;
    netio_socket pair[2];
    unsigned char wire[5];
    (void)s;
    if (test_in_memory()) SKIP("there are no sockets in memory");
    tally_begin();
    memset(&e, 0, sizeof e);
    memset(&opts, 0, sizeof opts);
    memset(&d, 0, sizeof d);
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    opts.user = &e;
    opts.filter = filter_of(&xor_ops, &key);
    CHECK_OK(CALL(netio_conn_adopt(&e.c, loop, pair[0], &end_all, &opts)));
    CHECK_OK(CALL(netio_conn_write(e.c, "plain", 5)));
    RUN_UNTIL(loop, netio_conn_pending(e.c) == 0);
    CHECK_OK(netio_recv_exact(pair[1], wire, 5, NULL, 5000));
    flip(wire, wire, 5, key);
    CHECK_MEM("plain", wire, 5);
    CHECK_OK(netio_close(&pair[1]));
    RUN_UNTIL(loop, e.ended);
    CHECK_ERR(NETIO_EBUSY, netio_conn_detach(e.c, &s, NULL, 0)); // a filter is on
    test_loop_destroy(&loop);
    end_check(&e);
    tally_end();
}

// Filters see the wire in the order in which they were added, the last one first.
TEST(filter, last_added_is_nearest_to_the_wire)
{
    duo d;
    stack s = {"record, xor", {&record_ops, &xor_ops}};
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = nth(&s, 0);
    d.a.arg = (void *)&s;
    d.a.on = add_rest;
    duo_open(&d, &end_all, &end_all); // the other end has none and sees the wire
    RUN_UNTIL(d.loop, d.a.secured == 1);
    unsigned char want[7] = {0, 5, 'h', 'e', 'l', 'l', 'o'};
    flip(want, want, 7, key2);
    d.b.arg = want;
    CHECK_OK(CALL(netio_conn_write(d.a.c, "hello", 5)));
    RUN_UNTIL(d.loop, d.b.got == 7);
    duo_close(&d);
    tally_end();
}

TEST(filter, self_can_be_asked_for)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = d.listen.conn.filter = filter_of(&greet_ops, NULL);
    duo_open(&d, &end_all, &end_all);
    greet_self *a = (greet_self *)netio_conn_filter(d.a.c, &greet_ops);
    greet_self *b = (greet_self *)netio_conn_filter(d.b.c, &greet_ops);
    CHECK(a != NULL && b != NULL && a != b);
    CHECK(a->dialed && !b->dialed);
    CHECK(netio_conn_filter(d.a.c, &xor_ops) == NULL);
    duo_close(&d);
    tally_end();
}

// --- ownership, limits --------------------------------------------------------------------------

static int released;
static void release(void *user)
{
    (void)user;
    CHECK(!test_calling);
    released++;
}

TEST(filter, all_forms_of_writing_pass)
{
    duo d;
    netio_file file;
    FILE *f = stream_file("filtered", 100000, 72, &file);
    static char owned[20000];
    char head[100], mid[100];
    netio_buf bufs[2] = {{mid, 40}, {mid + 40, 60}};
    tally_begin();
    released = 0;
    duo_init(&d);
    d.dial.conn.filter = d.listen.conn.filter = filter_of(&record_ops, NULL);
    d.b.seed = 72;
    duo_open(&d, &end_all, &end_plain);
    stream_fill(head, 100, 72, 0);
    stream_fill(mid, 100, 72, 100);
    stream_fill(owned, sizeof owned, 72, 200);
    CHECK_OK(CALL(netio_conn_write(d.a.c, head, 100)));
    CHECK_OK(CALL(netio_conn_writev(d.a.c, bufs, 2)));
    CHECK_OK(CALL(netio_conn_write_owned(d.a.c, owned, sizeof owned, release, NULL)));
    CHECK_OK(CALL(netio_conn_write_file(d.a.c, file, 20200, 79800, release, NULL)));
    CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(100000, d.b.got);
    CHECK_EQ(2, released);
    duo_close(&d);
    tally_end();
    fclose(f);
}

TEST(filter, file_that_is_too_short_ends_the_connection)
{
    duo d;
    netio_file file;
    FILE *f = stream_file("filtered", 10000, 72, &file);
    tally_begin();
    released = 0;
    duo_init(&d);
    d.dial.conn.filter = d.listen.conn.filter = filter_of(&record_ops, NULL);
    duo_open(&d, &end_all, &end_plain);
    CHECK_OK(CALL(netio_conn_write_file(d.a.c, file, 0, 10001, release, NULL)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_ERR(NETIO_ETRUNCATED, d.a.err);
    CHECK(d.b.err < 0);
    CHECK_EQ(1, released);
    duo_close(&d);
    tally_end();
    fclose(f);
}

// What the handler wrote counts, not what the filter made of it.
TEST(filter, marks_count_what_the_handler_wrote)
{
    duo d;
    static char much[50000];
    tally_begin();
    duo_init(&d);
    d.small = 8192;
    d.dial.conn.filter = d.listen.conn.filter = filter_of(&record_ops, NULL);
    d.dial.conn.write_queue_max = 100000;
    d.dial.conn.high_mark = 60000;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    CHECK_OK(CALL(netio_conn_write(d.a.c, "12345", 5)));
    CHECK_EQ(5, netio_conn_pending(d.a.c));
    RUN_UNTIL(d.loop, netio_conn_pending(d.a.c) == 0);
    int err = 0;
    while (err == 0) {
        CHECK_BETWEEN(0, 100000, netio_conn_pending(d.a.c));
        err = CALL(netio_conn_write(d.a.c, much, 1000));
    }
    CHECK_ERR(NETIO_ENOBUFS, err);
    CHECK(netio_conn_congested(d.a.c));
    CHECK_BETWEEN(99001, 100000, netio_conn_pending(d.a.c));
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, netio_conn_pending(d.a.c) == 0);
    RUN_UNTIL(d.loop, d.a.drained == 1);
    duo_close(&d);
    tally_end();
}

static void keep_three(end *e, int what, const void *data, size_t len)
{
    (void)data;
    if (what != DATA || len < 4) return;
    CHECK_OK(CALL(netio_conn_unread(e->c, 3)));
    e->got -= 3;
}

TEST(filter, unread_and_pause_work_behind_it)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = d.listen.conn.filter = filter_of(&record_ops, NULL);
    d.a.out_seed = d.b.seed = 73;
    d.a.out_len = 300000;
    d.b.on = keep_three;
    duo_open(&d, &end_all, &end_all);
    end_pump(&d.a);
    for (int i = 0; i < 20; i++) {
        CHECK_OK(CALL(netio_conn_pause(d.b.c)));
        uint64_t got = d.b.got;
        CHECK(netio_loop_run_once(d.loop, 1) >= 0);
        CHECK(netio_loop_run_once(d.loop, 1) >= 0);
        CHECK_EQ(got, d.b.got);
        CHECK_OK(CALL(netio_conn_resume(d.b.c)));
        CHECK(netio_loop_run_once(d.loop, 1) >= 0);
    }
    RUN_UNTIL(d.loop, d.b.got >= 300000 - 3);
    d.b.on = NULL;
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, d.b.got == 300000);
    duo_close(&d);
    tally_end();
}

//================================================================================================
// Handshakes
//================================================================================================

TEST(filter, handshake_holds_open_and_writes_back)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = filter_of(&greet_ops, NULL);
    duo_start(&d, &end_all, &end_all); // the server is plain and sees the wire
    CHECK_OK(CALL(netio_conn_write(d.a.c, "held back", 9)));
    RUN_UNTIL(d.loop, d.b.got == 4); // the greeting
    test_run_for(d.loop, 20);
    CHECK_EQ(4, d.b.got);
    CHECK_EQ(0, d.a.opened);
    CHECK_EQ(9, netio_conn_pending(d.a.c));
    CHECK_OK(CALL(netio_conn_write(d.b.c, "HELOfirst", 9))); // with data right behind it
    RUN_UNTIL(d.loop, d.a.got == 5);
    CHECK_STR("od", d.a.log);
    RUN_UNTIL(d.loop, d.b.got == 13);
    CHECK_EQ(0, netio_conn_pending(d.a.c));
    duo_close(&d);
    tally_end();
}

TEST(filter, handshake_byte_by_byte)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = filter_of(&greet_ops, NULL);
    duo_start(&d, &end_all, &end_all);
    RUN_UNTIL(d.loop, d.b.got == 4);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(0, d.a.opened);
        CHECK_OK(CALL(netio_conn_write(d.b.c, &"HELO"[i], 1)));
        test_run_for(d.loop, 5);
    }
    RUN_UNTIL(d.loop, d.a.opened);
    duo_close(&d);
    tally_end();
}

// Such as TLS through a proxy: the inner one's greeting waits for the outer one alone.
TEST(filter, handshake_inside_a_handshake)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = filter_of(&greet_ops, NULL);
    duo_start(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_add_filter(d.a.c, filter_of(&greet_ops, NULL))));
    CHECK_OK(CALL(netio_conn_write(d.a.c, "held back", 9)));
    RUN_UNTIL(d.loop, d.b.got == 4);
    test_run_for(d.loop, 20);
    CHECK_EQ(4, d.b.got); // the outer one's greeting
    CHECK_OK(CALL(netio_conn_write(d.b.c, "HELO", 4)));
    RUN_UNTIL(d.loop, d.b.got == 8);
    CHECK_EQ(0, d.a.opened);
    CHECK_OK(CALL(netio_conn_write(d.b.c, "HELO", 4)));
    RUN_UNTIL(d.loop, d.b.got == 17);
    CHECK_EQ(1, d.a.opened);
    duo_close(&d);
    tally_end();
}

static struct {
    int count;
    netio_error why;
} refused;

static void note_refused(void *user, const netio_addr *peer, const netio_error *why)
{
    (void)user;
    CHECK(peer != NULL);
    refused.count++;
    refused.why = *why;
}

TEST(filter, handshake_that_never_ends_is_cut)
{
    duo d;
    tally_begin();
    memset(&refused, 0, sizeof refused);
    duo_init(&d); // the server greets, the client does not
    d.listen.conn.filter = filter_of(&greet_ops, NULL);
    d.listen.conn.handshake_timeout_ms = 60;
    d.listen.on_refused = note_refused;
    duo_start(&d, &end_all, &end_all);
    uint64_t start = netio_loop_now_ms(d.loop);
    RUN_UNTIL(d.loop, end_lost(&d.a));
    CHECK_BETWEEN(55, 5000, netio_loop_now_ms(d.loop) - start);
    RUN_UNTIL(d.loop, refused.count == 1);
    CHECK_ERR(NETIO_ETIMEDOUT, refused.why.err);
    CHECK_EQ(NETIO_TIMEOUT_HANDSHAKE, refused.why.timeout);
    CHECK_EQ(NETIO_STAGE_HANDSHAKE, refused.why.stage);
    CHECK_STR("", d.b.log); // it was never handed out
    duo_close(&d);
    tally_end();
}

TEST(filter, dial_whose_handshake_never_ends_times_out)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = filter_of(&greet_ops, NULL);
    d.dial.timeout_ms = 60;
    duo_start(&d, &end_all, &end_all);
    uint64_t start = netio_loop_now_ms(d.loop);
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_BETWEEN(59, 5000, netio_loop_now_ms(d.loop) - start);
    CHECK_ERR(NETIO_ETIMEDOUT, d.a.err);
    CHECK_EQ(NETIO_TIMEOUT_CONNECT, d.a.error.timeout);
    CHECK_EQ(NETIO_STAGE_HANDSHAKE, d.a.error.stage);
    CHECK_STR("c", d.a.log);
    duo_close(&d);
    tally_end();
}

TEST(filter, handshake_that_is_wrong_is_refused)
{
    duo d;
    tally_begin();
    memset(&refused, 0, sizeof refused);
    duo_init(&d);
    d.dial.conn.close_timeout_ms = d.listen.conn.close_timeout_ms = 50;
    d.listen.conn.filter = filter_of(&greet_ops, NULL);
    d.listen.on_refused = note_refused;
    duo_start(&d, &end_all, &end_all); // the dialing side is plain
    CHECK_OK(CALL(netio_conn_write(d.a.c, "HEXE", 4)));
    RUN_UNTIL(d.loop, d.a.closed || d.a.ended);
    RUN_UNTIL(d.loop, refused.count == 1);
    CHECK_ERR(NETIO_EPROTO, refused.why.err);
    CHECK_EQ(NETIO_STAGE_HANDSHAKE, refused.why.stage);
    CHECK_STR("", d.b.log);
    duo_close(&d);
    tally_end();
}

static int strict_received(netio_filter_io *io, const void *data, size_t len)
{
    const char *p = (const char *)data;
    int err = greet_received(io, data, len < 4 ? len : 4);
    return err == 0 && len > 4 && p[4] == 'X' ? (int)NETIO_EPROTO : err;
}

static const netio_filter_ops strict_ops = {.name = "strict",
                                            .ref = count_ref,
                                            .unref = count_unref,
                                            .open = greet_open,
                                            .received = strict_received,
                                            .close = free_self};

// on_open did not run yet: then on_close has nothing to undo.
TEST(filter, failure_right_behind_the_handshake_is_a_refusal)
{
    duo d;
    tally_begin();
    memset(&refused, 0, sizeof refused);
    duo_init(&d);
    d.listen.conn.filter = filter_of(&strict_ops, NULL);
    d.listen.on_refused = note_refused;
    duo_start(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "HELOX", 5)));
    RUN_UNTIL(d.loop, refused.count == 1 && (d.a.ended || d.a.closed));
    CHECK_ERR(NETIO_EPROTO, refused.why.err);
    CHECK_EQ(0, d.b.opened);
    CHECK_EQ(0, d.b.closed);
    duo_close(&d);
    tally_end();
}

TEST(filter, peer_that_leaves_in_the_handshake_is_refused)
{
    for (int how = 0; how < 2; how++) {
        duo d;
        tally_begin();
        memset(&refused, 0, sizeof refused);
        duo_init(&d);
        d.listen.conn.filter = filter_of(&greet_ops, NULL);
        d.listen.on_refused = note_refused;
        duo_start(&d, &end_plain, &end_all);
        RUN_UNTIL(d.loop, d.a.got == 4);
        if (how) CHECK_OK(CALL(netio_conn_abort(d.a.c)));
        else CHECK_OK(CALL(netio_conn_close(d.a.c)));
        uint64_t start = netio_loop_now_ms(d.loop);
        RUN_UNTIL(d.loop, refused.count == 1 && d.a.closed);
        CHECK(netio_loop_now_ms(d.loop) - start < 5000); // not when the time is over
        CHECK(refused.why.err < 0);
        CHECK_STR("", d.b.log);
        duo_close(&d);
        tally_end();
    }
}

//================================================================================================
// Filters that fail
//================================================================================================

// clang-format off
enum { FAIL_OPEN, FAIL_RECEIVED, FAIL_ENDED, FAIL_WRITTEN, FAIL_SHUTDOWN, FAIL_TIMER, FAILS };
// clang-format on

static int failing(netio_filter_io *io, int here)
{
    int *where = (int *)netio_filter_self(io);
    return *where == here ? NETIO_EILSEQ : 0;
}

static int fail_open(netio_filter_io *io, void *arg)
{
    tally.opens++;
    netio_filter_set_self(io, arg);
    int err = failing(io, FAIL_OPEN);
    if (err < 0) return err;
    if (*(int *)arg == FAIL_TIMER) netio_filter_timer(io, 10);
    return netio_filter_ready(io);
}
static int fail_received(netio_filter_io *io, const void *data, size_t len)
{
    int err = failing(io, FAIL_RECEIVED);
    return err < 0 ? err : netio_filter_deliver(io, data, len);
}
static int fail_ended(netio_filter_io *io)
{
    int err = failing(io, FAIL_ENDED);
    return err < 0 ? err : netio_filter_deliver_end(io);
}
static int fail_written(netio_filter_io *io, const netio_buf *bufs, size_t count)
{
    int err = failing(io, FAIL_WRITTEN);
    for (size_t i = 0; err == 0 && i < count; i++)
        err = netio_filter_emit(io, bufs[i].data, bufs[i].len);
    return err;
}
static int fail_shutdown(netio_filter_io *io) { return failing(io, FAIL_SHUTDOWN); }
static int fail_timer(netio_filter_io *io)
{
    tally.timers++;
    return failing(io, FAIL_TIMER);
}
static void fail_explain(netio_filter_io *io, netio_error *out)
{
    tally.explained++;
    CHECK(netio_filter_self(io) != NULL);
    out->lib_code = 4711;
    snprintf(out->text, sizeof out->text, "the filter does not like it");
}
static void fail_close(netio_filter_io *io)
{
    (void)io;
    tally.closes++;
}

static const netio_filter_ops fail_ops = {.name = "failing",
                                          .ref = count_ref,
                                          .unref = count_unref,
                                          .open = fail_open,
                                          .received = fail_received,
                                          .ended = fail_ended,
                                          .written = fail_written,
                                          .shutdown = fail_shutdown,
                                          .timer = fail_timer,
                                          .explain = fail_explain,
                                          .close = fail_close};

TEST(filter, failure_ends_the_connection_and_is_explained)
{
    for (int where = 0; where < FAILS; where++) {
        duo d;
        tally_begin();
        duo_init(&d);
        d.dial.conn.close_timeout_ms = d.listen.conn.close_timeout_ms = 50;
        d.dial.conn.filter = filter_of(&fail_ops, &where);
        duo_start(&d, &end_all, &end_all);
        if (where != FAIL_OPEN) {
            RUN_UNTIL(d.loop, d.a.closed || (d.a.opened && d.b.opened));
            if (where == FAIL_RECEIVED) CHECK_OK(CALL(netio_conn_write(d.b.c, "x", 1)));
            if (where == FAIL_ENDED) CHECK_OK(CALL(netio_conn_shutdown(d.b.c)));
            if (where == FAIL_WRITTEN) (void)CALL(netio_conn_write(d.a.c, "x", 1));
            if (where == FAIL_SHUTDOWN) (void)CALL(netio_conn_shutdown(d.a.c));
        }
        RUN_UNTIL(d.loop, d.a.closed);
        CHECK_ERR(NETIO_EILSEQ, d.a.err);
        CHECK_EQ(4711, d.a.error.lib_code);
        CHECK(strstr(d.a.error.text, "does not like it") != NULL);
        CHECK(d.a.error.stage != NETIO_STAGE_NONE);
        if (where == FAIL_TIMER) CHECK_EQ(1, tally.timers);
        CHECK(tally.explained >= 1);
        if (d.b.opened) RUN_UNTIL(d.loop, d.b.closed || d.b.ended);
        duo_close(&d);
        tally_end();
    }
}

TEST(filter, failure_to_open_of_an_accepted_one_is_refused)
{
    duo d;
    int where = FAIL_OPEN;
    tally_begin();
    memset(&refused, 0, sizeof refused);
    duo_init(&d);
    d.listen.conn.filter = filter_of(&fail_ops, &where);
    d.listen.on_refused = note_refused;
    duo_start(&d, &end_plain, &end_all);
    RUN_UNTIL(d.loop, refused.count == 1 && d.a.closed);
    CHECK_ERR(NETIO_EILSEQ, refused.why.err);
    CHECK_STR("", d.b.log);
    duo_close(&d);
    tally_end();
}

// Bytes delivered before the failure were handed out.
TEST(filter, good_bytes_come_before_the_failure)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.close_timeout_ms = d.listen.conn.close_timeout_ms = 50;
    d.listen.conn.filter = filter_of(&record_ops, NULL);
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "\0\005hello\0\0junk", 13))); // data, end, junk
    RUN_UNTIL(d.loop, d.b.closed);
    CHECK_EQ(5, d.b.got);
    CHECK_ERR(NETIO_EPROTO, d.b.err);
    duo_close(&d);
    tally_end();
}

// An end of the wire without the filter's own end is no clean end.
TEST(filter, truncation_is_an_error)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.listen.conn.filter = filter_of(&record_ops, NULL);
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "\0\005hello", 7)));
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.b.closed);
    CHECK_EQ(5, d.b.got);
    CHECK_ERR(NETIO_ETRUNCATED, d.b.err);
    CHECK_EQ(0, d.b.ended);
    duo_close(&d);
    tally_end();
}

//================================================================================================
// Half-close
//================================================================================================

// The filter's end of stream is on_eof; the wire stays open for the other direction.
TEST(filter, half_close_in_each_direction)
{
    for (int who = 0; who < 2; who++) {
        duo d;
        end *first = who ? &d.b : &d.a, *second = who ? &d.a : &d.b;
        tally_begin();
        duo_init(&d);
        d.dial.conn.filter = d.listen.conn.filter = filter_of(&record_ops, NULL);
        first->out_seed = second->seed = 74;
        second->out_seed = first->seed = 75;
        first->out_len = second->out_len = 300000;
        first->then = second->then = 's';
        duo_open(&d, &end_all, &end_all);
        end_pump(first);
        RUN_UNTIL(d.loop, second->ended);
        CHECK_EQ(300000, second->got);
        test_run_for(d.loop, 5);
        CHECK_EQ(0, first->ended);
        CHECK_ERR(NETIO_EPIPE, CALL(netio_conn_write(first->c, "x", 1)));
        end_pump(second);
        RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
        CHECK_EQ(300000, first->got);
        CHECK_ERR(0, d.a.err);
        CHECK_ERR(0, d.b.err);
        duo_close(&d);
        tally_end();
    }
}

TEST(filter, close_sends_its_end_before_the_wire_s)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = d.listen.conn.filter = filter_of(&record_ops, NULL);
    d.a.out_seed = d.b.seed = 76;
    d.a.out_len = 200000;
    d.a.then = 'c';
    duo_open(&d, &end_plain, &end_all);
    end_pump(&d.a);
    RUN_UNTIL(d.loop, d.b.ended);
    CHECK_EQ(200000, d.b.got);
    CHECK_OK(CALL(netio_conn_close(d.b.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
    tally_end();
}

//================================================================================================
// In mid-stream
//================================================================================================

// "STARTTLS": the client asks, the server agrees, both go on behind a filter.
// What comes right behind the words in the clear is the filter's: it is left unread.
static bool upgrade(end *e, int what, size_t spoken)
{
    if (what != DATA || e->arg || e->got < spoken) return false;
    e->arg = e;
    if (e->got > spoken) CHECK_OK(CALL(netio_conn_unread(e->c, (size_t)(e->got - spoken))));
    e->got = spoken;
    return true;
}

static void server_upgrades(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (!upgrade(e, what, 5)) return;
    CHECK_OK(CALL(netio_conn_write(e->c, "agree", 5))); // goes out without the filter
    CHECK_OK(CALL(netio_conn_add_filter(e->c, filter_of(&greet_ops, NULL))));
    CHECK_OK(CALL(netio_conn_write(e->c, "behind", 6))); // waits until it is ready
}

static void client_upgrades(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (upgrade(e, what, 5))
        CHECK_OK(CALL(netio_conn_add_filter(e->c, filter_of(&greet_ops, NULL))));
    if (what == SECURED) CHECK_OK(CALL(netio_conn_write(e->c, "secure", 6)));
}

TEST(filter, added_in_mid_stream)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.a.on = client_upgrades;
    d.b.on = server_upgrades;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "start", 5)));
    RUN_UNTIL(d.loop, d.a.got == 11 && d.b.got == 11);
    CHECK_STR("odsd", d.a.log);
    CHECK_STR("odsd", d.b.log);
    CHECK(netio_conn_filter(d.a.c, &greet_ops) != NULL);
    duo_close(&d);
    tally_end();
}

// Bytes that came in the clear behind the command must not pass as secure ones.
static struct {
    int result[2];
} injection;

static void upgrade_with_rest(end *e, int what, const void *data, size_t len)
{
    (void)data;
    if (what != DATA || len < 10 || e->arg) return;
    e->arg = e;
    CHECK_OK(CALL(netio_conn_unread(e->c, len - 5)));
    e->got -= len - 5;
    injection.result[0] = CALL(netio_conn_add_filter(e->c, filter_of(&clean_greet_ops, NULL)));
    injection.result[1] = CALL(netio_conn_add_filter(e->c, filter_of(&greet_ops, NULL)));
}

TEST(filter, clear_text_may_forbid_it)
{
    duo d;
    tally_begin();
    memset(&injection, 0, sizeof injection);
    duo_init(&d);
    d.b.on = upgrade_with_rest;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "startHELOinjected", 17)));
    CHECK_OK(CALL(netio_conn_flush(d.a.c)));
    RUN_UNTIL(d.loop, d.b.arg || d.b.got == 17);
    if (!d.b.arg) {
        duo_close(&d);
        SKIP("it came in pieces");
    }
    CHECK_ERR(NETIO_EPROTO, injection.result[0]);
    CHECK_ERR(0, injection.result[1]); // this one reads what was unread
    RUN_UNTIL(d.loop, d.b.secured);
    RUN_UNTIL(d.loop, d.b.got == 5 + 8);
    duo_close(&d);
    tally_end();
}

TEST(filter, clean_stream_permits_it)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = d.listen.conn.filter = filter_of(&clean_greet_ops, NULL);
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_add_filter(d.a.c, filter_of(&clean_greet_ops, NULL))));
    CHECK_OK(CALL(netio_conn_add_filter(d.b.c, filter_of(&clean_greet_ops, NULL))));
    RUN_UNTIL(d.loop, d.a.secured && d.b.secured);
    duo_close(&d);
    tally_end();
}

TEST(filter, listener_gives_a_new_one_to_new_connections)
{
    duo d;
    pool p;
    end served[3], next;
    tally_begin();
    memset(&p, 0, sizeof p);
    memset(&next, 0, sizeof next);
    p.kind = KIND_POOL;
    p.ends = served;
    p.cap = 3;
    duo_init(&d);
    d.listen.conn.user = &p;
    d.dial.conn.filter = d.listen.conn.filter = filter_of(&greet_ops, NULL);
    duo_open(&d, &end_all, &end_all);
    RUN_UNTIL(d.loop, p.used == 1);
    CHECK_OK(CALL(netio_listener_set_filter(d.listener, filter_of(&xor_ops, &key))));
    d.dial.conn.filter = filter_of(&xor_ops, &key);
    duo_dial(&d, &next, &end_all);
    CHECK_OK(CALL(netio_conn_write(next.c, "new", 3)));
    CHECK_OK(CALL(netio_conn_write(d.a.c, "old!", 4)));
    RUN_UNTIL(d.loop, p.used == 2 && served[1].got == 3 && served[0].got == 4);
    CHECK(netio_conn_filter(served[0].c, &greet_ops) != NULL);
    CHECK(netio_conn_filter(served[1].c, &xor_ops) != NULL);
    netio_filter none = {NULL, NULL};
    CHECK_OK(CALL(netio_listener_set_filter(d.listener, none)));
    duo_close(&d);
    tally_end();
}

//================================================================================================
// Timer, limits
//================================================================================================

// Sends a beat on each tick of its timer and drops those that it receives.
static int beat_open(netio_filter_io *io, void *arg)
{
    (void)arg;
    tally.opens++;
    netio_filter_timer(io, 5);
    return netio_filter_ready(io);
}
static int beat_timer(netio_filter_io *io)
{
    tally.timers++;
    if (tally.timers < 6) netio_filter_timer(io, 5);
    else netio_filter_timer(io, -1);
    return netio_filter_emit(io, "*", 1);
}
static void beat_close(netio_filter_io *io)
{
    (void)io;
    tally.closes++;
}
static const netio_filter_ops beat_ops = {.name = "beat",
                                          .ref = count_ref,
                                          .unref = count_unref,
                                          .open = beat_open,
                                          .timer = beat_timer,
                                          .close = beat_close};

TEST(filter, timer_runs_and_may_send)
{
    duo d;
    tally_begin();
    duo_init(&d);
    d.dial.conn.filter = filter_of(&beat_ops, NULL);
    duo_open(&d, &end_all, &end_all);
    uint64_t start = netio_loop_now_ms(d.loop);
    RUN_UNTIL(d.loop, d.b.got == 6);
    CHECK(netio_loop_now_ms(d.loop) - start >= 20);
    test_run_for(d.loop, 30);
    CHECK_EQ(6, tally.timers);
    duo_close(&d);
    tally_end();
}

// Makes much of little: what is delivered while the handler does not read is kept, but not without
// limit.
static int swell_received(netio_filter_io *io, const void *data, size_t len)
{
    static char swollen[5000];
    (void)data;
    for (size_t i = 0; i < len; i++) {
        int err = netio_filter_deliver(io, swollen, sizeof swollen);
        if (err < 0) return err;
    }
    return 0;
}
static const netio_filter_ops swell_ops = {.name = "swell", .received = swell_received};

static void pause_at_data(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what == DATA) CHECK_OK(CALL(netio_conn_pause(e->c)));
}

TEST(filter, delivered_bytes_are_kept_within_a_limit)
{
    for (int many = 0; many < 2; many++) {
        duo d;
        static char bytes[64];
        tally_begin();
        duo_init(&d);
        d.dial.conn.close_timeout_ms = d.listen.conn.close_timeout_ms = 50;
        d.loop_opts.recv_buffer = 8192; // four of them: 32 KiB
        d.listen.conn.filter = filter_of(&swell_ops, NULL);
        d.b.on = pause_at_data;
        duo_open(&d, &end_all, &end_all);
        CHECK_OK(CALL(netio_conn_write(d.a.c, bytes, many ? 64 : 4)));
        RUN_UNTIL(d.loop, d.b.got > 0);
        test_run_for(d.loop, 10);
        if (many) {
            RUN_UNTIL(d.loop, d.b.closed);
            CHECK_ERR(NETIO_ENOBUFS, d.b.err);
        } else {
            while (d.b.got < 20000) { // piece by piece
                CHECK_OK(CALL(netio_conn_resume(d.b.c)));
                CHECK(netio_loop_run_once(d.loop, 5) >= 0);
            }
            CHECK_EQ(20000, d.b.got);
            CHECK_EQ(0, d.b.closed);
        }
        duo_close(&d);
        tally_end();
    }
}

//================================================================================================

// clang-format off
TEST_MAIN("filter",
    T(filter, stacks_carry_all_bytes_and_both_ends),
    T(filter, changes_what_is_on_the_wire),
    T(filter, last_added_is_nearest_to_the_wire),
    T(filter, self_can_be_asked_for),
    T(filter, all_forms_of_writing_pass),
    T(filter, file_that_is_too_short_ends_the_connection),
    T(filter, marks_count_what_the_handler_wrote),
    T(filter, unread_and_pause_work_behind_it),
    T(filter, handshake_holds_open_and_writes_back),
    T(filter, handshake_byte_by_byte), T(filter, handshake_inside_a_handshake),
    T(filter, handshake_that_never_ends_is_cut),
    T(filter, dial_whose_handshake_never_ends_times_out),
    T(filter, handshake_that_is_wrong_is_refused),
    T(filter, peer_that_leaves_in_the_handshake_is_refused),
    T(filter, failure_ends_the_connection_and_is_explained),
    T(filter, failure_to_open_of_an_accepted_one_is_refused),
    T(filter, good_bytes_come_before_the_failure),
    T(filter, failure_right_behind_the_handshake_is_a_refusal),
    T(filter, truncation_is_an_error),
    T(filter, half_close_in_each_direction),
    T(filter, close_sends_its_end_before_the_wire_s),
    T(filter, added_in_mid_stream),
    T(filter, clear_text_may_forbid_it),
    T(filter, clean_stream_permits_it),
    T(filter, listener_gives_a_new_one_to_new_connections),
    T(filter, timer_runs_and_may_send),
    T(filter, delivered_bytes_are_kept_within_a_limit))
