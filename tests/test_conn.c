// BACKENDS: all memory
//
// Connections: the order of callbacks, what arrives of what was written, by which forms, within
// which limits; bytes kept unread, pause, hand-over of sockets, counters. How they end is
// test_conn_close, limits of time test_conn_time, calls from inside callbacks test_conn_calls.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "engine.h"

#ifndef _WIN32
#include <fcntl.h>
#include <sys/socket.h>
#endif

//================================================================================================
// Order of callbacks
//================================================================================================

// `arg` is a text of words: what happens, then what to do. "ow dsc": write when opened; shut down
// and close at the first bytes.
static void scripted(end *e, int what, const void *data, size_t len)
{
    const char *s = (const char *)e->arg;
    (void)data, (void)len;
    for (; *s; s += strcspn(s, " "), s += strspn(s, " ")) {
        if (*s != what) continue;
        for (const char *todo = s + 1; *todo && *todo != ' '; todo++) {
            if (*todo == 'w') CHECK_OK(CALL(netio_conn_write(e->c, "hello", 5)));
            if (*todo == 's') CHECK_OK(CALL(netio_conn_shutdown(e->c)));
            if (*todo == 'c') CHECK_OK(CALL(netio_conn_close(e->c)));
            if (*todo == 'a') CHECK_OK(CALL(netio_conn_abort(e->c)));
        }
    }
}

TEST(conn, callbacks_come_in_one_order)
{
    static const struct {
        const char *name;
        const netio_handler *a, *b;
        const char *a_does, *b_does;
        const char *a_log, *b_log;
        int a_err, b_err;
    } t[] = {
        {"end after the answer", &end_all, &end_plain, "ows", "dw", "odec", "odc", 0, 0},
        {"close after writing", &end_plain, &end_plain, "owc", "dw", "oc", "odc", 0, 0},
        {"answer and close", &end_plain, &end_plain, "ow", "dwc", "odc", "odc", 0, 0},
        {"answer after the end", &end_all, &end_all, "ows", "ewc", "odec", "odec", 0, 0},
        {"answer and end after the end", &end_all, &end_all, "ows", "ews", "odec", "odec", 0, 0},
        {"server closes at once", &end_plain, &end_plain, "", "oc", "oc", "oc", 0, 0},
        {"client closes at once", &end_plain, &end_plain, "oc", "", "oc", "oc", 0, 0},
        {"both close at once", &end_plain, &end_plain, "oc", "oc", "oc", "oc", 0, 0},
        {"both end at once", &end_all, &end_all, "os", "os", "oec", "oec", 0, 0},
        {"both write, then end", &end_all, &end_all, "ows", "ows", "odec", "odec", 0, 0},
        {"end, then close", &end_plain, &end_all, "owsc", "ewc", "oc", "odec", 0, 0},
        {"server aborts", &end_plain, &end_plain, "ow", "da", "oc", "odc", NETIO_ECONNRESET,
         NETIO_ECONNABORTED},
        {"client aborts", &end_plain, &end_plain, "da", "ow", "odc", "oc", NETIO_ECONNABORTED,
         NETIO_ECONNRESET},
        {"the end is left to the other", &end_all, &end_plain, "ow ec", "dwc", "odec", "odc", 0, 0},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        duo d;
        duo_init(&d);
        d.a.on = d.b.on = scripted;
        d.a.arg = (void *)t[i].a_does;
        d.b.arg = (void *)t[i].b_does;
        duo_start(&d, t[i].a, t[i].b);
        RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
        if (strcmp(t[i].a_log, d.a.log) || strcmp(t[i].b_log, d.b.log))
            printf("    %s: %s and %s\n", t[i].name, d.a.log, d.b.log);
        CHECK_STR(t[i].a_log, d.a.log);
        CHECK_STR(t[i].b_log, d.b.log);
        if (t[i].a_err == NETIO_ECONNRESET) check_reset(&d.a);
        else CHECK_ERR(t[i].a_err, d.a.err);
        if (t[i].b_err == NETIO_ECONNRESET) check_reset(&d.b);
        else CHECK_ERR(t[i].b_err, d.b.err);
        duo_close(&d);
    }
}

TEST(conn, ends_with_its_loop)
{
    duo d;
    duo_init(&d);
    duo_open(&d, &end_all, &end_all);
    duo_close(&d);
    CHECK_STR("oc", d.a.log);
    CHECK_STR("oc", d.b.log);
    CHECK_ERR(NETIO_ECANCELED, d.a.err);
    CHECK_ERR(NETIO_ECANCELED, d.b.err);
}

TEST(conn, dial_ends_with_its_loop)
{
    duo d;
    duo_init(&d);
    duo_start(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "never sent", 10)));
    duo_close(&d);
    CHECK_STR("c", d.a.log);
    CHECK_ERR(NETIO_ECANCELED, d.a.err);
    CHECK_STR("", d.b.log);
}

// Every callback may be absent; then bytes are dropped, ends and stops close.
TEST(conn, needs_no_callback)
{
    static const netio_handler none = {0};
    duo d;
    netio_stats s;
    duo_init(&d);
    d.a.out_len = 300000;
    d.a.then = 's';
    duo_start(&d, &end_all, &none);
    RUN_UNTIL(d.loop, d.a.opened);
    end_pump(&d.a);
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_ERR(0, d.a.err);
    CHECK_EQ(1, d.a.ended);
    RUN_UNTIL(d.loop, (netio_loop_stats(d.loop, &s), s.active == 0));
    CHECK_EQ(300000, s.bytes_out);
    CHECK_EQ(300000, s.bytes_in);
    duo_close(&d);
}

static const netio_handler only_close = {0};

TEST(conn, replaced_handler_gets_what_follows)
{
    static end other; // the same connection, seen by the second handler
    duo d;
    duo_init(&d);
    memset(&other, 0, sizeof other);
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.b.c, "1", 1)));
    RUN_UNTIL(d.loop, d.a.got == 1);
    CHECK_OK(CALL(netio_conn_set_handler(d.a.c, &only_close)));
    CHECK_OK(CALL(netio_conn_write(d.b.c, "22", 2)));
    test_run_for(d.loop, 30);
    CHECK_EQ(1, d.a.got);
    CHECK_OK(CALL(netio_conn_set_handler(d.a.c, &end_all)));
    CHECK_OK(CALL(netio_conn_write(d.b.c, "333", 3)));
    RUN_UNTIL(d.loop, d.a.got >= 4);
    CHECK_EQ(4, d.a.got); // what came meanwhile was dropped
    duo_close(&d);
}

TEST(conn, user_pointer_and_identity)
{
    duo d;
    netio_addr a, b;
    int other = KIND_END;
    duo_init(&d);
    duo_open(&d, &end_all, &end_all);
    CHECK(netio_conn_user(d.a.c) == &d.a);
    netio_conn_set_user(d.a.c, &other);
    CHECK(netio_conn_user(d.a.c) == &other);
    netio_conn_set_user(d.a.c, &d.a);
    CHECK(netio_conn_loop(d.a.c) == d.loop);
    CHECK(netio_conn_alive(d.a.c));
    CHECK(netio_conn_same(d.a.c, d.a.c));
    CHECK(!netio_conn_same(d.a.c, d.b.c));
    CHECK(netio_conn_id(d.a.c) != 0);
    CHECK(netio_conn_id(d.a.c) != netio_conn_id(d.b.c));
    CHECK_STR("127.0.0.1", netio_conn_server_name(d.a.c));
    CHECK_STR("", netio_conn_server_name(d.b.c));
    CHECK_OK(netio_conn_peer(d.a.c, &a)); // each one's peer is the other's own
    CHECK_OK(netio_conn_local(d.b.c, &b));
    CHECK(netio_addr_equal(&a, &b));
    CHECK_OK(netio_conn_local(d.a.c, &a));
    CHECK_OK(netio_conn_peer(d.b.c, &b));
    CHECK(netio_addr_equal(&a, &b));
    CHECK(netio_addr_port(&a) != 0);
    duo_close(&d);
}

TEST(conn, ids_are_never_given_twice)
{
    duo d;
    uint64_t last = 0;
    duo_init(&d);
    duo_start(&d, &end_plain, &only_close);
    for (int i = 0; i < 50; i++) {
        end e;
        memset(&e, 0, sizeof e);
        duo_dial(&d, &e, &end_plain);
        CHECK(netio_conn_id(e.c) > last);
        last = netio_conn_id(e.c);
        CHECK_OK(CALL(netio_conn_abort(e.c)));
        RUN_UNTIL(d.loop, e.closed);
    }
    duo_close(&d);
}

//================================================================================================
// Echo
//================================================================================================

// The client reads although its own queue is long, for else it and the echo would wait for each
// other.
TEST(conn, echo_of_random_sizes)
{
    duo d;
    duo_init(&d);
    d.dial.conn.read_always = true;
    d.a.out_seed = d.a.seed = 5;
    d.a.out_len = 3000000;
    d.a.then = 's';
    d.b.echo = true;
    duo_open(&d, &end_all, &end_plain);
    end_pump(&d.a);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(3000000, d.a.got);
    CHECK_STR("odec", d.a.drained ? "odec" : d.a.log);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
}

TEST(conn, both_directions_at_once)
{
    duo d;
    duo_init(&d);
    d.dial.conn.read_always = d.listen.conn.read_always = true;
    d.a.out_seed = d.b.seed = 6;
    d.b.out_seed = d.a.seed = 7;
    d.a.out_len = d.b.out_len = 2000000;
    d.a.then = d.b.then = 's';
    duo_open(&d, &end_all, &end_all);
    end_pump(&d.a);
    end_pump(&d.b);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(2000000, d.a.got);
    CHECK_EQ(2000000, d.b.got);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
}

static void ping_pong(end *e, int what, const void *data, size_t len)
{
    unsigned char byte;
    (void)data, (void)len;
    if (what != DATA) return;
    if (e->out == e->out_len) {
        CHECK_OK(CALL(netio_conn_close(e->c)));
        return;
    }
    stream_fill(&byte, 1, e->out_seed, e->out++);
    CHECK_OK(CALL(netio_conn_write(e->c, &byte, 1)));
}

TEST(conn, echo_byte_by_byte)
{
    duo d;
    unsigned char byte;
    duo_init(&d);
    d.a.out_seed = d.a.seed = 8;
    d.a.out_len = 500;
    d.a.on = ping_pong;
    d.b.echo = true;
    duo_open(&d, &end_plain, &end_plain);
    stream_fill(&byte, 1, 8, d.a.out++);
    CHECK_OK(CALL(netio_conn_write(d.a.c, &byte, 1)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(500, d.a.got);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
}

// In memory the network can be told to take and give single bytes.
TEST(conn, bytes_come_and_go_one_at_a_time)
{
    netio_link link = {0};
    duo d;
    if (!test_in_memory()) SKIP("only the network in memory can be told so");
    duo_init(&d);
    d.a.out_seed = d.a.seed = 9;
    d.a.out_len = 20000;
    d.a.then = 's';
    d.b.echo = true;
    link.piece_max = link.send_max = 1;
    link.latency_ms = 1;
    CHECK(test_network() != NULL);
    test_link(&link);
    duo_open(&d, &end_all, &end_plain);
    end_pump(&d.a);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(20000, d.a.got);
    CHECK_ERR(0, d.a.err);
    duo_close(&d);
}

// Nothing of the heap is used for a message, once the first ones have warmed the loop.
TEST(conn, messages_need_no_memory)
{
    duo d;
    long allocs = 0;
    duo_init(&d);
    d.b.echo = true;
    duo_open(&d, &end_plain, &end_plain);
    for (int i = 0; i < 2000; i++) {
        uint64_t got = d.a.got;
        if (i == 1000) allocs = test_allocs();
        CHECK_OK(CALL(netio_conn_write(d.a.c, "sixteen bytes ok", 16)));
        RUN_UNTIL(d.loop, d.a.got == got + 16);
    }
    if (!test_in_memory()) CHECK_EQ(allocs, test_allocs());
    else CHECK_BETWEEN(allocs, allocs + 4, test_allocs()); // its pipes may still grow
    duo_close(&d);
}

//================================================================================================
// Writing: forms, order, ownership
//================================================================================================

enum { OWNED_MAX = 2000 };
static struct {
    int given, released;
    unsigned char *data[OWNED_MAX];
    bool wrong;
} owned;

static void owned_begin(void) { memset(&owned, 0, sizeof owned); }

static void owned_release(void *user)
{
    size_t i = (size_t)(uintptr_t)user;
    if (test_calling || !owned.data[i]) owned.wrong = true; // inside a call, or a second time
    free(owned.data[i]);
    owned.data[i] = NULL;
    owned.released++;
}

// Memory that netio shall own, filled from the stream. Returns its number.
static size_t owned_make(size_t len, uint32_t seed, uint64_t pos)
{
    size_t i = (size_t)owned.given++;
    CHECK(i < OWNED_MAX);
    owned.data[i] = (unsigned char *)malloc(len + 1);
    CHECK(owned.data[i] != NULL);
    stream_fill(owned.data[i], len, seed, pos);
    return i;
}

static void owned_end(void)
{
    CHECK(!owned.wrong);
    CHECK_EQ(owned.given, owned.released);
}

// netio did not take it: it is still ours.
static void owned_refused(size_t i)
{
    CHECK(owned.data[i] != NULL);
    free(owned.data[i]);
    owned.data[i] = NULL;
    owned.given--;
}

// One write of a random form and size at `pos` of the stream; the file holds the same stream.
static int write_any(netio_conn c, uint32_t *random, netio_file file, uint32_t seed, uint64_t pos,
                     size_t len)
{
    static unsigned char buf[200000];
    netio_buf bufs[5];
    size_t at = 0, i;
    int err;
    stream_fill(buf, len, seed, pos);
    switch (test_random(random) >> 8 & 3) {
    case 0: return CALL(netio_conn_write(c, buf, len));
    case 1:
        for (i = 0; i < 4; i++) {
            bufs[i].data = buf + at;
            bufs[i].len = test_random(random) % (len - at + 1);
            at += bufs[i].len;
        }
        bufs[4].data = buf + at;
        bufs[4].len = len - at;
        return CALL(netio_conn_writev(c, bufs, 5));
    case 2:
        i = owned_make(len, seed, pos);
        err = CALL(
            netio_conn_write_owned(c, owned.data[i], len, owned_release, (void *)(uintptr_t)i));
        break;
    default:
        i = owned_make(0, seed, pos); // only to count the release
        err = CALL(netio_conn_write_file(c, file, pos, len, owned_release, (void *)(uintptr_t)i));
        break;
    }
    if (err < 0) owned_refused(i);
    memset(buf, 0, len);
    return err;
}

static void forms(int small, int rounds, size_t max)
{
    duo d;
    uint32_t random = 77;
    uint64_t pos = 0;
    netio_file file;
    FILE *f = stream_file("forms", (uint64_t)rounds * 2 * max, 3, &file);
    owned_begin();
    duo_init(&d);
    d.small = small;
    d.dial.conn.write_queue_max = 300000;
    d.dial.conn.high_mark = 100000;
    d.b.seed = 3;
    duo_open(&d, &end_plain, &end_plain);
    for (int i = 0; i < rounds; i++) {
        size_t len = test_random(&random) % (test_random(&random) % 8 ? max / 20 : max);
        int err = write_any(d.a.c, &random, file, 3, pos, len);
        if (err == NETIO_ENOBUFS) {
            RUN_UNTIL(d.loop, netio_conn_pending(d.a.c) == 0);
            err = write_any(d.a.c, &random, file, 3, pos, len);
        }
        CHECK_OK(err);
        pos += len;
        if (test_random(&random) % 4 == 0) CHECK(netio_loop_run_once(d.loop, 0) >= 0);
        if (test_random(&random) % 16 == 0) CHECK_OK(CALL(netio_conn_flush(d.a.c)));
    }
    CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
    RUN_UNTIL(d.loop, d.b.closed && d.a.closed);
    CHECK_EQ(pos, d.b.got);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
    owned_end();
    fclose(f);
}

TEST(conn, all_forms_of_writing_keep_their_order) { forms(0, 600, 20000); }

TEST(conn, all_forms_of_writing_pass_small_buffers)
{
    forms(8192, 200, test_under("wine") ? 10000 : 60000);
}

TEST(conn, writes_of_nothing_are_taken)
{
    duo d;
    netio_buf none[2] = {{NULL, 0}, {"", 0}};
    owned_begin();
    duo_init(&d);
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, NULL, 0)));
    CHECK_OK(CALL(netio_conn_write(d.a.c, "", 0)));
    CHECK_OK(CALL(netio_conn_writev(d.a.c, NULL, 0)));
    CHECK_OK(CALL(netio_conn_writev(d.a.c, none, 2)));
    size_t i = owned_make(0, 1, 0);
    CHECK_OK(
        CALL(netio_conn_write_owned(d.a.c, owned.data[i], 0, owned_release, (void *)(uintptr_t)i)));
    CHECK_OK(CALL(netio_conn_flush(d.a.c)));
    CHECK_EQ(0, netio_conn_pending(d.a.c));
    RUN_UNTIL(d.loop, owned.released == 1);
    test_run_for(d.loop, 10);
    CHECK_EQ(0, d.b.got);
    duo_close(&d);
    owned_end();
}

// Memory that netio owns may be without a release function: then it lives as long as it must.
TEST(conn, owned_memory_may_be_static)
{
    static const char text[] = "static text";
    duo d;
    duo_init(&d);
    duo_open(&d, &end_plain, &end_plain);
    CHECK_OK(CALL(netio_conn_write_owned(d.a.c, text, sizeof text, NULL, NULL)));
    RUN_UNTIL(d.loop, d.b.got == sizeof text);
    duo_close(&d);
}

// What cannot be taken stays the caller's; what was taken is released, sent or not.
TEST(conn, owned_memory_comes_back_once_whatever_happens)
{
    static const char how[] = "acsd";
    netio_file file;
    FILE *f = stream_file("owned", 100000, 4, &file);
    for (int i = 0; how[i]; i++) {
        duo d;
        size_t n;
        uint64_t pos = 0;
        owned_begin();
        duo_init(&d);
        d.small = 8192;
        d.dial.conn.write_queue_max = 8 << 20;
        d.dial.conn.write_timeout_ms = 50; // ends the close of a connection that is not read
        duo_open(&d, &end_plain, &end_plain);
        CHECK_OK(CALL(netio_conn_pause(d.b.c)));
        for (int k = 0; k < 50; k++, pos += 20000) {
            n = owned_make(20000, 4, pos);
            CHECK_OK(CALL(netio_conn_write_owned(d.a.c, owned.data[n], 20000, owned_release,
                                                 (void *)(uintptr_t)n)));
            n = owned_make(0, 4, pos);
            CHECK_OK(CALL(netio_conn_write_file(d.a.c, file, 0, 100000, owned_release,
                                                (void *)(uintptr_t)n)));
        }
        test_run_for(d.loop, 5);
        CHECK(owned.released < owned.given);
        if (how[i] == 'a') CHECK_OK(CALL(netio_conn_abort(d.a.c)));
        if (how[i] == 'c') CHECK_OK(CALL(netio_conn_close(d.a.c)));
        if (how[i] == 's') CHECK_OK(CALL(netio_conn_abort(d.b.c)));
        if (how[i] != 'd') RUN_UNTIL(d.loop, d.a.closed);
        duo_close(&d); // 'd': while all of it is queued
        owned_end();
        CHECK(d.a.err < 0);
        n = owned_make(10, 4, 0);
        // The handle died with its loop: nothing may be called any more, so only count.
        owned_refused(n);
    }
    fclose(f);
}

TEST(conn, writes_that_are_refused_take_nothing)
{
    duo d;
    netio_file file;
    FILE *f = stream_file("refused", 1000, 4, &file);
    owned_begin();
    duo_init(&d);
    duo_open(&d, &end_plain, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "before", 6)));
    CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
    for (int stale = 0; stale < 2; stale++) {
        int want = stale ? NETIO_ESTALE : NETIO_EPIPE;
        netio_buf buf = {"after", 5};
        size_t n = owned_make(10, 4, 0);
        CHECK_ERR(want, CALL(netio_conn_write(d.a.c, "after", 5)));
        CHECK_ERR(want, CALL(netio_conn_writev(d.a.c, &buf, 1)));
        CHECK_ERR(want, CALL(netio_conn_write_owned(d.a.c, owned.data[n], 10, owned_release,
                                                    (void *)(uintptr_t)n)));
        CHECK_ERR(want, CALL(netio_conn_write_file(d.a.c, file, 0, 10, owned_release,
                                                   (void *)(uintptr_t)n)));
        owned_refused(n);
        if (stale) break;
        RUN_UNTIL(d.loop, d.b.ended);
        CHECK_EQ(6, d.b.got);
        CHECK_OK(CALL(netio_conn_close(d.a.c)));
    }
    CHECK_OK(CALL(netio_conn_close(d.b.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(6, d.b.got);
    duo_close(&d);
    owned_end();
    fclose(f);
}

TEST(conn, writes_make_no_sense_without_data)
{
    duo d;
    netio_buf bad = {NULL, 5};
    duo_init(&d);
    duo_open(&d, &end_plain, &end_plain);
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_write(d.a.c, NULL, 5)));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_writev(d.a.c, NULL, 5)));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_writev(d.a.c, &bad, 1)));
    CHECK_EQ(0, netio_conn_pending(d.a.c));
    duo_close(&d);
}

// Operations of the loop's hook, for counting.
static struct {
    int count[16];
    ptrdiff_t bytes[16];
    char list[600];
} ops;

static void count_op(void *user, int op, netio_conn c, ptrdiff_t result)
{
    (void)user, (void)c;
    CHECK_BETWEEN(1, 15, op);
    ops.count[op]++;
    if (result > 0) ops.bytes[op] += result;
}

static void write_ten(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what != OPENED) return;
    for (int i = 0; i < 10; i++) CHECK_OK(CALL(netio_conn_write(e->c, "0123456789", 10)));
    CHECK_EQ(100, netio_conn_pending(e->c));
}

TEST(conn, writes_of_a_turn_leave_in_one_send)
{
    duo d;
    if (test_rough()) SKIP("sends come short there");
    memset(&ops, 0, sizeof ops);
    duo_init(&d);
    d.loop_opts.on_op = count_op;
    d.a.on = write_ten;
    duo_open(&d, &end_plain, &end_plain);
    RUN_UNTIL(d.loop, d.b.got == 100);
    CHECK_EQ(1, ops.count[NETIO_OP_SEND]);
    CHECK_EQ(100, ops.bytes[NETIO_OP_SEND]);
    CHECK_EQ(0, netio_conn_pending(d.a.c));

    CHECK_OK(CALL(netio_conn_write(d.a.c, "now", 3))); // outside the loop: it waits for a turn
    CHECK_EQ(3, netio_conn_pending(d.a.c));
    CHECK_EQ(1, ops.count[NETIO_OP_SEND]);
    CHECK_OK(CALL(netio_conn_flush(d.a.c)));
    if (!test_in_memory()) { // there an engine may take its time
        CHECK_EQ(0, netio_conn_pending(d.a.c));
        CHECK_EQ(2, ops.count[NETIO_OP_SEND]);
    }
    RUN_UNTIL(d.loop, d.b.got == 103);
    CHECK_EQ(0, netio_conn_pending(d.a.c));
    CHECK_EQ(2, ops.count[NETIO_OP_SEND]);
    duo_close(&d);
}

TEST(conn, pieces_of_a_write_leave_together)
{
    duo d;
    netio_buf bufs[3] = {{"abc", 3}, {"", 0}, {"defgh", 5}};
    if (test_rough()) SKIP("sends come short there");
    memset(&ops, 0, sizeof ops);
    duo_init(&d);
    d.loop_opts.on_op = count_op;
    duo_open(&d, &end_plain, &end_plain);
    CHECK_OK(CALL(netio_conn_writev(d.a.c, bufs, 3)));
    CHECK_OK(CALL(netio_conn_write_owned(d.a.c, "owned", 5, NULL, NULL)));
    RUN_UNTIL(d.loop, d.b.got == 13);
    CHECK_EQ(1, ops.count[NETIO_OP_SEND]);
    duo_close(&d);
}

//================================================================================================
// Files
//================================================================================================

TEST(conn, file_ranges)
{
    static const struct {
        uint64_t off, len;
    } t[] = {{0, 0}, {0, 1}, {0, 300000}, {1, 299999}, {299999, 1}, {4095, 4098}, {100000, 65536}};
    netio_file file;
    FILE *f = stream_file("ranges", 300000, 12, &file);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        duo d;
        owned_begin();
        duo_init(&d);
        duo_open(&d, &end_plain, &end_plain);
        size_t n = owned_make(0, 1, 0);
        CHECK_OK(CALL(netio_conn_write_file(d.a.c, file, t[i].off, t[i].len, owned_release,
                                            (void *)(uintptr_t)n)));
        CHECK_BETWEEN(0, t[i].len, netio_conn_pending(d.a.c));
        CHECK_OK(CALL(netio_conn_close(d.a.c)));
        d.b.seed = 12;
        d.b.got = t[i].off; // what comes is compared from there
        RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
        CHECK_EQ(t[i].off + t[i].len, d.b.got);
        CHECK_ERR(0, d.a.err);
        duo_close(&d);
        owned_end();
    }
    fclose(f);
}

TEST(conn, file_counts_as_pending_but_not_to_the_limit)
{
    duo d;
    netio_file file;
    FILE *f = stream_file("large", 3000000, 13, &file);
    duo_init(&d);
    d.small = 8192;
    d.dial.conn.write_queue_max = 100000;
    d.b.seed = 13;
    duo_open(&d, &end_plain, &end_plain);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    CHECK_OK(CALL(netio_conn_write_file(d.a.c, file, 0, 2000000, NULL, NULL)));
    CHECK_OK(CALL(netio_conn_write_file(d.a.c, file, 2000000, 900000, NULL, NULL)));
    test_run_for(d.loop, 20);
    CHECK_BETWEEN(1000000, 2900000, netio_conn_pending(d.a.c));
    {
        static unsigned char buf[80000]; // where the kernel sends no files 16 KiB do count
        stream_fill(buf, sizeof buf, 13, 2900000);
        CHECK_OK(CALL(netio_conn_write(d.a.c, buf, sizeof buf)));
        CHECK_ERR(NETIO_ENOBUFS, CALL(netio_conn_write(d.a.c, buf, sizeof buf)));
    }
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, d.b.got == 2980000);
    CHECK_EQ(0, netio_conn_pending(d.a.c));
    duo_close(&d);
    fclose(f);
}

TEST(conn, file_that_is_too_short_ends_the_connection)
{
    duo d;
    netio_file file;
    FILE *f = stream_file("short", 50000, 14, &file);
    owned_begin();
    duo_init(&d);
    d.b.seed = 14;
    duo_open(&d, &end_plain, &end_plain);
    size_t n = owned_make(0, 1, 0);
    CHECK_OK(
        CALL(netio_conn_write_file(d.a.c, file, 0, 50001, owned_release, (void *)(uintptr_t)n)));
    CHECK_OK(CALL(netio_conn_write(d.a.c, "behind it", 9)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_ERR(NETIO_ETRUNCATED, d.a.err);
    CHECK_EQ(NETIO_STAGE_WRITE, d.a.error.stage);
    check_reset(&d.b); // not a clean end: the answer is not whole
    CHECK_BETWEEN(0, 50000, d.b.got);
    duo_close(&d);
    owned_end();
    fclose(f);
}

//================================================================================================
// Limits of the queue
//================================================================================================

static struct {
    size_t pending_at_drain;
    bool congested_at_drain;
} drain;

static void note_drain(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what != DRAINED) return;
    drain.pending_at_drain = netio_conn_pending(e->c);
    drain.congested_at_drain = netio_conn_congested(e->c);
}

TEST(conn, full_queue_takes_nothing_and_drains_once)
{
    duo d;
    char piece[1000];
    uint64_t taken = 0;
    int err;
    duo_init(&d);
    d.small = 16384;
    d.dial.conn.write_queue_max = 100000;
    d.dial.conn.high_mark = 40000;
    d.dial.conn.low_mark = 10000;
    d.a.on = note_drain;
    d.b.seed = 15;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    CHECK(!netio_conn_congested(d.a.c));
    for (int turn = 0; turn < 10; turn++) {
        for (;;) {
            size_t before = netio_conn_pending(d.a.c);
            stream_fill(piece, sizeof piece, 15, taken);
            err = CALL(netio_conn_write(d.a.c, piece, sizeof piece));
            if (err < 0) {
                CHECK_BETWEEN(0, before, netio_conn_pending(d.a.c));
                break;
            }
            taken += sizeof piece;
            CHECK_BETWEEN(0, 100000, netio_conn_pending(d.a.c));
        }
        CHECK_ERR(NETIO_ENOBUFS, err);
        CHECK(netio_conn_pending(d.a.c) + sizeof piece > 100000);
        CHECK(netio_conn_congested(d.a.c));
        test_run_for(d.loop, 5); // some may still leave
    }
    CHECK_EQ(0, d.a.drained);
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, d.b.got == taken);
    test_run_for(d.loop, 5);
    CHECK_EQ(1, d.a.drained);
    CHECK(drain.pending_at_drain <= 10000);
    CHECK(!drain.congested_at_drain);
    CHECK_EQ(0, netio_conn_pending(d.a.c));
    CHECK(!netio_conn_congested(d.a.c));
    duo_close(&d);
}

TEST(conn, drains_once_for_each_time_above_the_mark)
{
    static char buf[65536];
    duo d;
    duo_init(&d);
    d.small = 16384;
    d.dial.conn.write_queue_max = 400000;
    d.dial.conn.high_mark = 150000;
    d.dial.conn.low_mark = 0; // a quarter of it
    d.a.on = note_drain;
    d.a.out_seed = d.b.seed = 16;
    duo_open(&d, &end_all, &end_all);
    for (int i = 1; i <= 3; i++) {
        uint64_t total;
        CHECK_OK(CALL(netio_conn_pause(d.b.c)));
        end_fill(&d, &d.a, 160000, 1000);
        total = d.a.out;
        CHECK(netio_conn_congested(d.a.c));
        CHECK_EQ(i - 1, d.a.drained);
        CHECK_OK(CALL(netio_conn_resume(d.b.c)));
        RUN_UNTIL(d.loop, d.b.got == total);
        test_run_for(d.loop, 5);
        CHECK_EQ(i, d.a.drained);
        CHECK(drain.pending_at_drain <= 150000 / 4);
    }
    CHECK_OK(CALL(netio_conn_pause(d.b.c))); // below the mark nothing is said
    end_fill(&d, &d.a, 100000, 1000);
    CHECK(!netio_conn_congested(d.a.c));
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, d.b.got == d.a.out);
    test_run_for(d.loop, 5);
    CHECK_EQ(3, d.a.drained);
    (void)buf;
    duo_close(&d);
}

// A write that is refused below the marks waits for an empty queue, which takes any.
TEST(conn, refused_write_below_the_marks_drains_when_empty)
{
    static char large[100000];
    duo d;
    duo_init(&d);
    d.small = 16384;
    d.dial.conn.write_queue_max = 40000;
    d.dial.conn.high_mark = 30000;
    d.dial.conn.low_mark = 20000;
    d.a.on = note_drain;
    d.a.out_seed = d.b.seed = 16;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    end_fill(&d, &d.a, 5000, 1000);
    CHECK_BETWEEN(5000, 20000, netio_conn_pending(d.a.c));
    CHECK_ERR(NETIO_ENOBUFS, CALL(netio_conn_write(d.a.c, large, sizeof large)));
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, d.a.drained == 1);
    CHECK_EQ(0, drain.pending_at_drain);
    RUN_UNTIL(d.loop, d.b.got == d.a.out);
    stream_fill(large, sizeof large, 16, d.a.out);
    CHECK_OK(CALL(netio_conn_write(d.a.c, large, sizeof large)));
    RUN_UNTIL(d.loop, d.b.got == d.a.out + sizeof large);
    duo_close(&d);
}

TEST(conn, write_that_would_pass_the_limit_flushes_first)
{
    static char buf[9000];
    duo d;
    if (test_in_memory())
        SKIP("what is lent to the network there counts until it is told to be sent");
    duo_init(&d);
    d.dial.conn.write_queue_max = 10000;
    duo_open(&d, &end_plain, &end_plain);
    for (int i = 0; i < 5; i++) {
        CHECK_OK(CALL(netio_conn_write(d.a.c, buf, sizeof buf)));
        CHECK_EQ(sizeof buf, netio_conn_pending(d.a.c));
    }
    RUN_UNTIL(d.loop, d.b.got == 5 * sizeof buf);
    CHECK_EQ(0, d.a.drained);
    duo_close(&d);
}

TEST(conn, empty_queue_takes_any_single_write)
{
    enum { LARGE = 5000000 };
    unsigned char *data = (unsigned char *)malloc(LARGE);
    duo d;
    CHECK(data != NULL);
    stream_fill(data, LARGE, 17, 0);
    duo_init(&d);
    d.small = 16384;
    d.dial.conn.write_queue_max = 1000;
    d.b.seed = 17;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    CHECK_OK(CALL(netio_conn_write(d.a.c, data, LARGE)));
    memset(data, 0, LARGE); // it was copied
    CHECK(netio_conn_pending(d.a.c) > 1000);
    CHECK(netio_conn_congested(d.a.c));
    CHECK_ERR(NETIO_ENOBUFS, CALL(netio_conn_write(d.a.c, "x", 1)));
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, d.b.got == LARGE);
    RUN_UNTIL(d.loop, d.a.drained);
    CHECK_EQ(1, d.a.drained);
    stream_fill(data, 1, 17, LARGE);
    CHECK_OK(CALL(netio_conn_write(d.a.c, data, 1)));
    RUN_UNTIL(d.loop, d.b.got == LARGE + 1);
    duo_close(&d);
    free(data);
}

TEST(conn, slow_reader_gets_8_mib)
{
    enum { TOTAL = 8 << 20 };
    unsigned char *data = (unsigned char *)malloc(TOTAL);
    duo d;
    CHECK(data != NULL);
    stream_fill(data, TOTAL, 18, 0);
    duo_init(&d);
    d.dial.conn.write_queue_max = TOTAL + 1000;
    d.b.seed = 18;
    duo_open(&d, &end_all, &end_plain);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    for (size_t at = 0; at < TOTAL; at += TOTAL / 64)
        CHECK_OK(CALL(netio_conn_write(d.a.c, data + at, TOTAL / 64)));
    CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
    free(data);
    while (d.b.got < TOTAL) { // it reads a piece, then looks away
        uint64_t got = d.b.got;
        CHECK_OK(CALL(netio_conn_resume(d.b.c)));
        RUN_UNTIL(d.loop, d.b.got > got);
        CHECK_OK(CALL(netio_conn_pause(d.b.c)));
        CHECK(netio_loop_run_once(d.loop, 0) >= 0);
    }
    if (netio_conn_alive(d.b.c)) CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, d.b.closed);
    CHECK_EQ(TOTAL, d.b.got);
    RUN_UNTIL(d.loop, d.a.closed);
    CHECK_ERR(0, d.a.err);
    CHECK_EQ(1, d.a.drained);
    duo_close(&d);
}

TEST(conn, congested_connection_is_not_read)
{
    for (int always = 0; always < 2; always++) {
        duo d;
        duo_init(&d);
        d.small = 16384;
        d.dial.conn.read_always = always == 1;
        d.a.out_seed = d.b.seed = 19;
        d.a.seed = 20;
        duo_open(&d, &end_all, &end_all);
        CHECK_OK(CALL(netio_conn_pause(d.b.c)));
        end_fill(&d, &d.a, 100000, 1000);
        CHECK(netio_conn_congested(d.a.c));
        {
            char text[100];
            stream_fill(text, sizeof text, 20, 0);
            CHECK_OK(CALL(netio_conn_write(d.b.c, text, sizeof text)));
        }
        if (always) {
            RUN_UNTIL(d.loop, d.a.got == 100);
            CHECK_EQ(0, d.a.drained);
        } else {
            test_run_for(d.loop, 30);
            CHECK_EQ(0, d.a.got);
        }
        CHECK_OK(CALL(netio_conn_resume(d.b.c)));
        RUN_UNTIL(d.loop, d.a.got == 100 && d.b.got == d.a.out);
        CHECK_EQ(1, d.a.drained);
        duo_close(&d);
    }
}

TEST(conn, marks_can_be_changed)
{
    duo d;
    duo_init(&d);
    d.small = 16384;
    duo_open(&d, &end_all, &end_all);
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_set_marks(d.a.c, 1000, 2000, 10000)));  // low > high
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_set_marks(d.a.c, 20000, 2000, 10000))); // high > max
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    end_fill(&d, &d.a, 50000, 1000);
    CHECK(!netio_conn_congested(d.a.c)); // the old marks hold: 64 KiB
    CHECK_OK(CALL(netio_conn_set_marks(d.a.c, 10000, 2000, 52000)));
    CHECK(netio_conn_congested(d.a.c));
    {
        static char buf[10000];
        CHECK_ERR(NETIO_ENOBUFS, CALL(netio_conn_write(d.a.c, buf, sizeof buf)));
    }
    CHECK_OK(CALL(netio_conn_set_marks(d.a.c, 0, 0, 0))); // the defaults again
    {
        static char buf[10000];
        CHECK_OK(CALL(netio_conn_write(d.a.c, buf, sizeof buf)));
    }
    CHECK_OK(CALL(netio_conn_set_marks(d.a.c, 10000, 2000, 100000)));
    CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, netio_conn_pending(d.a.c) == 0);
    RUN_UNTIL(d.loop, d.a.drained == 1);
    duo_close(&d);
}

TEST(conn, marks_that_contradict_are_refused_at_once)
{
    netio_loop *loop;
    netio_conn c;
    end e;
    netio_dial_opts dial;
    netio_listener_opts listen;
    netio_listener l;
    memset(&dial, 0, sizeof dial);
    memset(&listen, 0, sizeof listen);
    memset(&e, 0, sizeof e);
    CHECK_OK(test_loop_create(&loop, NULL));
    dial.conn.user = &e;
    dial.conn.high_mark = 1000;
    dial.conn.low_mark = 2000;
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_dial(&c, loop, "127.0.0.1:1", &end_plain, &dial)));
    dial.conn.low_mark = 0;
    dial.conn.write_queue_max = 500;
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_dial(&c, loop, "127.0.0.1:1", &end_plain, &dial)));
    listen.conn = dial.conn;
    CHECK_ERR(NETIO_EINVAL,
              CALL(netio_listener_open(&l, loop, test_loop_addr(), &end_plain, &listen)));
    test_loop_destroy(&loop);
    CHECK_STR("", e.log);
}

//================================================================================================
// Bytes kept
//================================================================================================

// Takes whole records of `arg` bytes and leaves the rest.
static void take_records(end *e, int what, const void *data, size_t len)
{
    size_t record = *(size_t *)e->arg;
    (void)data;
    if (what != DATA) return;
    CHECK_OK(CALL(netio_conn_unread(e->c, len % record)));
    e->got -= len % record; // they come again
}

TEST(conn, unread_rest_comes_first)
{
    static const size_t records[] = {2, 7, 1000, 3967, 70001};
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) {
        duo d;
        duo_init(&d);
        d.a.out_seed = d.b.seed = 21;
        d.a.out_len = records[i] * (1 + 200000 / records[i]);
        d.a.then = 's';
        d.b.on = take_records;
        d.b.arg = (void *)&records[i];
        duo_open(&d, &end_plain, &end_all);
        end_pump(&d.a);
        RUN_UNTIL(d.loop, d.b.ended);
        CHECK_EQ(d.a.out_len, d.b.got);
        duo_close(&d);
    }
}

// Keeps a number of bytes of the first piece, then takes all.
static void keep_some(end *e, int what, const void *data, size_t len)
{
    size_t *keep = (size_t *)e->arg;
    (void)data;
    if (what != DATA || *keep == (size_t)-1) return;
    if (*keep > len) CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_unread(e->c, len + 1)));
    if (*keep > len) *keep = len;
    CHECK_OK(CALL(netio_conn_unread(e->c, *keep)));
    e->got -= *keep;
    *keep = (size_t)-1;
}

TEST(conn, unread_of_every_amount)
{
    duo d;
    size_t keep;
    duo_init(&d);
    d.a.out_seed = d.b.seed = 22;
    d.b.on = keep_some;
    d.b.arg = &keep;
    keep = (size_t)-1;
    duo_open(&d, &end_all, &end_all);
    for (size_t n = 0; n <= 17; n++) { // of 16: all but the first, some, all, and one too many
        for (int how = 0; how < 2; how++) {
            char buf[16];
            keep = n;
            stream_fill(buf, 16, 22, d.a.out);
            CHECK_OK(CALL(netio_conn_write(d.a.c, buf, 16)));
            d.a.out += 16;
            RUN_UNTIL(d.loop, keep == (size_t)-1);
            test_run_for(d.loop, 2);
            if (how == 0) { // more arrives
                stream_fill(buf, 1, 22, d.a.out);
                CHECK_OK(CALL(netio_conn_write(d.a.c, buf, 1)));
                d.a.out += 1;
            } else { // reading resumes
                CHECK_OK(CALL(netio_conn_pause(d.b.c)));
                CHECK_OK(CALL(netio_conn_resume(d.b.c)));
            }
            RUN_UNTIL(d.loop, d.b.got == d.a.out);
        }
    }
    CHECK_EQ(0, d.a.drained);
    duo_close(&d);
}

typedef struct keeper {
    uint32_t random;
    uint64_t total;
    int kept, all_kept;
    size_t largest;
} keeper;

static void nudge(void *user)
{
    end *e = (end *)user;
    if (netio_conn_pause(e->c) == 0) netio_conn_resume(e->c);
}

static void keep_at_random(end *e, int what, const void *data, size_t len)
{
    keeper *k = (keeper *)e->arg;
    (void)data;
    if (what != DATA) return;
    if (len > k->largest) k->largest = len;
    if (e->got == k->total && test_random(&k->random) % 4) return; // the last ones: take them
    size_t keep = test_random(&k->random) % 8 ? test_random(&k->random) % (len + 1) : len;
    if (CALL(netio_conn_unread(e->c, keep)) < 0) return; // more than is kept: taken
    e->got -= keep;
    k->kept++;
    k->all_kept += keep == len;
}

TEST(conn, unread_at_random_loses_nothing)
{
    duo d;
    keeper k = {99, 400000, 0, 0, 0};
    netio_timer t;
    duo_init(&d);
    d.loop_opts.recv_buffer = 4096;
    d.a.out_seed = d.b.seed = 23;
    d.a.out_len = k.total;
    d.b.on = keep_at_random;
    d.b.arg = &k;
    duo_open(&d, &end_plain, &end_all);
    CHECK_OK(netio_timer_every(&t, d.loop, 1, nudge, &d.b)); // what is kept comes again
    end_pump(&d.a);
    RUN_UNTIL(d.loop, d.b.got == k.total);
    CHECK(k.kept > 10 && k.all_kept > 0);
    CHECK_BETWEEN(1, 2 * 4096, k.largest);
    CHECK_EQ(0, d.b.ended);
    duo_close(&d);
}

// At most one receive buffer is kept; then the socket is not read and the writer feels it.
static void keep_all(end *e, int what, const void *data, size_t len)
{
    (void)data;
    if (what != DATA || *(bool *)e->arg) return;
    if (CALL(netio_conn_unread(e->c, len)) == 0) e->got -= len;
}

TEST(conn, kept_bytes_have_a_limit)
{
    duo d;
    bool take = false;
    duo_init(&d);
    d.loop_opts.recv_buffer = 4096;
    d.small = 16384;
    d.a.out_seed = d.b.seed = 24;
    d.a.out_len = 500000;
    d.b.on = keep_all;
    d.b.arg = &take;
    duo_open(&d, &end_all, &end_all);
    end_pump(&d.a);
    test_run_for(d.loop, 30);
    CHECK(netio_conn_pending(d.a.c) > 0);
    CHECK_BETWEEN(0, 16384, d.b.got);
    take = true;
    nudge(&d.b);
    RUN_UNTIL(d.loop, d.b.got == d.a.out_len);
    duo_close(&d);
}

static void unread_wrongly(end *e, int what, const void *data, size_t len)
{
    duo *d = (duo *)e->arg;
    (void)data;
    if (what == OPENED) CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_unread(e->c, 0)));
    if (what == ENDED) CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_unread(e->c, 1)));
    if (what != DATA) return;
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_unread(e->c, len + 1)));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_unread(e->c, (size_t)-1)));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_unread(d->a.c, 1)));
}

TEST(conn, unread_belongs_into_on_data)
{
    duo d;
    duo_init(&d);
    d.b.on = unread_wrongly;
    d.b.arg = &d;
    duo_open(&d, &end_plain, &end_all);
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_unread(d.b.c, 1)));
    CHECK_OK(CALL(netio_conn_write(d.a.c, "1234", 4)));
    CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
    RUN_UNTIL(d.loop, d.b.ended);
    CHECK_EQ(4, d.b.got);
    duo_close(&d);
}

// The last word counts.
static void unread_twice(end *e, int what, const void *data, size_t len)
{
    (void)data;
    if (what != DATA || e->arg) return;
    e->arg = e;
    CHECK_OK(CALL(netio_conn_unread(e->c, len)));
    CHECK_OK(CALL(netio_conn_unread(e->c, 1)));
    e->got -= 1;
}

TEST(conn, unread_again_replaces)
{
    duo d;
    char buf[8];
    duo_init(&d);
    d.b.on = unread_twice;
    d.b.seed = 25;
    duo_open(&d, &end_plain, &end_all);
    stream_fill(buf, 8, 25, 0);
    CHECK_OK(CALL(netio_conn_write(d.a.c, buf, 8)));
    RUN_UNTIL(d.loop, d.b.got > 0 || d.b.arg);
    nudge(&d.b);
    RUN_UNTIL(d.loop, d.b.got == 8);
    duo_close(&d);
}

//================================================================================================
// Pause
//================================================================================================

static void pause_in_data(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what == DATA) CHECK_OK(CALL(netio_conn_pause(e->c)));
}

TEST(conn, paused_gets_no_data_and_no_end)
{
    duo d;
    duo_init(&d);
    d.a.out_seed = d.b.seed = 26;
    d.a.out_len = 400000;
    d.a.then = 's';
    d.loop_opts.recv_buffer = 8192;
    d.b.on = pause_in_data;
    duo_open(&d, &end_plain, &end_all);
    end_pump(&d.a);
    for (uint64_t last = 0; !d.b.ended; last = d.b.got) {
        RUN_UNTIL(d.loop, d.b.got > last || d.b.ended);
        uint64_t got = d.b.got;
        int ended = d.b.ended;
        CHECK(d.b.got - last <= 2 * 8192); // one piece
        for (int i = 0; i < 3; i++) CHECK(netio_loop_run_once(d.loop, 0) >= 0);
        CHECK_EQ(got, d.b.got);
        CHECK_EQ(ended, d.b.ended);
        CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    }
    CHECK_EQ(400000, d.b.got);
    duo_close(&d);
}

TEST(conn, pause_and_resume_may_repeat)
{
    duo d;
    duo_init(&d);
    duo_open(&d, &end_plain, &end_all);
    for (int i = 0; i < 3; i++) CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    for (int i = 0; i < 3; i++) CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    CHECK_OK(CALL(netio_conn_write(d.a.c, "x", 1)));
    test_run_for(d.loop, 20);
    CHECK_EQ(0, d.b.got);
    CHECK_OK(CALL(netio_conn_resume(d.b.c))); // once is enough
    RUN_UNTIL(d.loop, d.b.got == 1);
    duo_close(&d);
}

TEST(conn, paused_dial_opens_and_waits)
{
    duo d;
    duo_init(&d);
    duo_start(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.a.c)));
    RUN_UNTIL(d.loop, d.a.opened && d.b.opened);
    CHECK_OK(CALL(netio_conn_write(d.b.c, "x", 1)));
    test_run_for(d.loop, 20);
    CHECK_EQ(0, d.a.got);
    CHECK_OK(CALL(netio_conn_resume(d.a.c)));
    RUN_UNTIL(d.loop, d.a.got == 1);
    duo_close(&d);
}

TEST(conn, reset_while_paused_shows_after_resume)
{
    duo d;
    duo_init(&d);
    d.b.seed = d.a.out_seed = 27;
    d.a.out_len = 1000;
    d.a.then = 0;
    duo_open(&d, &end_plain, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    end_pump(&d.a);
    RUN_UNTIL(d.loop, netio_conn_pending(d.a.c) == 0);
    CHECK_OK(CALL(netio_conn_abort(d.a.c)));
    test_run_for(d.loop, 20);
    CHECK_EQ(0, d.b.got);
    if (!d.b.closed) CHECK_OK(CALL(netio_conn_resume(d.b.c)));
    RUN_UNTIL(d.loop, end_lost(&d.b));
    check_reset(&d.b);
    CHECK(d.b.got == 0 || d.b.got == 1000);
    duo_close(&d);
}

// A paused connection costs nothing, whatever its peer does.
TEST(conn, paused_connection_does_not_spin)
{
    duo d;
    netio_stats before, after;
    duo_init(&d);
    duo_open(&d, &end_plain, &end_all);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    CHECK_OK(CALL(netio_conn_write(d.a.c, "x", 1)));
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    test_run_for(d.loop, 20);
    netio_loop_stats(d.loop, &before);
    test_run_for(d.loop, 50);
    netio_loop_stats(d.loop, &after);
    CHECK_BETWEEN(0, 10, after.turns - before.turns);
    duo_close(&d);
}

//================================================================================================
// Sockets handed over
//================================================================================================

// What `c` has sent and its peer holds.
static void adopt_opts(netio_conn_opts *o, end *e)
{
    memset(o, 0, sizeof *o);
    memset(e, 0, sizeof *e);
    o->user = e;
}

TEST(conn, adopts_a_socket_with_bytes_that_came_before)
{
    netio_loop *loop;
    netio_socket client, server;
    netio_conn_opts opts;
    end e;
    char buf[600];
    if (test_in_memory()) SKIP("there are no sockets in memory");
    stream_fill(buf, sizeof buf, 28, 0);
    CHECK_OK(test_loop_create(&loop, NULL));
    test_tcp_pair(&client, &server);
    adopt_opts(&opts, &e);
    e.seed = 28;
    opts.unread = buf;
    opts.unread_len = 100;
    CHECK_OK(CALL(netio_conn_adopt(&e.c, loop, server, &end_all, &opts)));
    CHECK_STR("", e.log);
    memset(buf, 0, 100); // it was copied
    CHECK_OK(netio_send_all(client, buf + 100, 500, NULL, 5000));
    RUN_UNTIL(loop, e.got == 600);
    CHECK_STR("od", e.log);
    CHECK_OK(CALL(netio_conn_write(e.c, "answer", 6)));
    CHECK_OK(CALL(netio_conn_close(e.c)));
    CHECK(netio_loop_run_once(loop, 0) >= 0);
    CHECK_OK(netio_recv_exact(client, buf, 6, NULL, 5000));
    CHECK_MEM("answer", buf, 6);
    CHECK_ERR(NETIO_EOF, netio_recv(client, buf, 1, 5000));
    CHECK_OK(netio_close(&client));
    RUN_UNTIL(loop, e.closed);
    CHECK_ERR(0, e.err);
    test_loop_destroy(&loop);
    end_check(&e);
}

TEST(conn, adopted_bytes_come_without_anything_to_read)
{
    netio_loop *loop;
    netio_socket s[2];
    netio_conn_opts opts;
    end e;
    if (test_in_memory()) SKIP("there are no sockets in memory");
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(netio_pair(s, NETIO_STREAM));
    adopt_opts(&opts, &e);
    opts.unread = "kept";
    opts.unread_len = 4;
    CHECK_OK(CALL(netio_conn_adopt(&e.c, loop, s[0], &end_all, &opts)));
    RUN_UNTIL(loop, e.got == 4);
    CHECK_OK(netio_close(&s[1]));
    RUN_UNTIL(loop, e.ended);
    CHECK_STR("ode", e.log);
    test_loop_destroy(&loop);
    end_check(&e);
}

TEST(conn, adopt_refuses_what_is_no_connection)
{
    netio_loop *loop;
    netio_socket listener, udp;
    netio_conn_opts opts;
    char text[NETIO_ADDR_TEXT];
    end e;
    adopt_opts(&opts, &e);
    CHECK_OK(test_loop_create(&loop, NULL));
    if (test_in_memory()) {
        CHECK_ERR(NETIO_ENOTSUP,
                  CALL(netio_conn_adopt(NULL, loop, NETIO_INVALID_SOCKET, &end_all, &opts)));
        test_loop_destroy(&loop);
        return;
    }
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_bind(&udp, "127.0.0.1:0", NULL));
    CHECK(CALL(netio_conn_adopt(NULL, loop, NETIO_INVALID_SOCKET, &end_all, &opts)) < 0);
    CHECK(CALL(netio_conn_adopt(NULL, loop, udp, &end_all, &opts)) < 0);
    CHECK(CALL(netio_conn_adopt(NULL, loop, listener, &end_all, &opts)) < 0);
    CHECK_OK(netio_close(&listener)); // still ours
    CHECK_OK(netio_close(&udp));
    test_loop_destroy(&loop);
    CHECK_STR("", e.log);
}

static netio_socket detached;
static char detached_bytes[64];
static ptrdiff_t detached_len;

static void detach_in_data(end *e, int what, const void *data, size_t len)
{
    (void)data;
    if (what != DATA) return;
    CHECK_OK(CALL(netio_conn_unread(e->c, len - 3))); // 3 bytes were for this owner
    e->got -= len - 3;
    detached_len = NETIO_ENOSPC;
    CHECK_ERR(NETIO_ENOSPC, netio_conn_detach(e->c, &detached, detached_bytes, len - 4));
    CHECK(netio_conn_alive(e->c));
    detached_len = netio_conn_detach(e->c, &detached, detached_bytes, sizeof detached_bytes);
    CHECK(!netio_conn_alive(e->c));
}

TEST(conn, detaches_in_on_data_with_the_rest)
{
    duo d;
    char buf[8];
    if (test_in_memory()) SKIP("there are no sockets in memory");
    duo_init(&d);
    d.b.on = detach_in_data;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "3ME7 bytes", 10)));
    RUN_UNTIL(d.loop, d.b.closed);
    CHECK_STR("odc", d.b.log);
    CHECK_ERR(0, d.b.err);
    CHECK_EQ(3, d.b.got);
    CHECK_EQ(7, detached_len);
    CHECK_MEM("7 bytes", detached_bytes, 7);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "more", 4))); // the connection itself goes on
    CHECK(netio_loop_run_once(d.loop, 0) >= 0);
    CHECK_OK(netio_recv_exact(detached, buf, 4, NULL, 5000));
    CHECK_MEM("more", buf, 4);
    CHECK_OK(netio_send_all(detached, "back", 4, NULL, 5000));
    RUN_UNTIL(d.loop, d.a.got == 4);
    CHECK_OK(netio_close(&detached));
    RUN_UNTIL(d.loop, d.a.ended);
    duo_close(&d);
}

TEST(conn, detaches_while_paused_with_what_was_kept)
{
    duo d;
    size_t keep = 5;
    if (test_in_memory()) SKIP("there are no sockets in memory");
    duo_init(&d);
    d.b.on = keep_some;
    d.b.arg = &keep;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "keep five", 9)));
    RUN_UNTIL(d.loop, keep == (size_t)-1);
    CHECK_OK(CALL(netio_conn_pause(d.b.c)));
    CHECK_ERR(NETIO_ENOSPC, netio_conn_detach(d.b.c, &detached, detached_bytes, 4));
    CHECK_ERR(5, netio_conn_detach(d.b.c, &detached, detached_bytes, 5));
    CHECK_MEM(" five", detached_bytes, 5);
    CHECK_ERR(NETIO_ESTALE, netio_conn_detach(d.b.c, &detached, detached_bytes, 5));
    CHECK_EQ(0, d.b.closed);
    RUN_UNTIL(d.loop, d.b.closed);
    CHECK_ERR(0, d.b.err);
    CHECK_OK(netio_close(&detached));
    duo_close(&d);
}

TEST(conn, detach_refuses_while_bytes_are_queued_or_it_is_not_open)
{
    duo d;
    if (test_in_memory()) SKIP("there are no sockets in memory");
    duo_init(&d);
    d.small = 16384;
    duo_start(&d, &end_all, &end_all);
    CHECK_ERR(NETIO_EBUSY, netio_conn_detach(d.a.c, &detached, NULL, 0));
    RUN_UNTIL(d.loop, d.a.opened && d.b.opened);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "queued", 6)));
    CHECK_ERR(NETIO_EBUSY, netio_conn_detach(d.a.c, &detached, NULL, 0));
    RUN_UNTIL(d.loop, d.b.got == 6);
    CHECK_ERR(0, netio_conn_detach(d.a.c, &detached, NULL, 0));
    CHECK_OK(netio_send_all(detached, "by hand", 7, NULL, 5000));
    RUN_UNTIL(d.loop, d.b.got == 13);
    CHECK_OK(netio_close(&detached));
    RUN_UNTIL(d.loop, d.b.ended);
    duo_close(&d);
}

TEST(conn, detached_socket_can_be_adopted_again)
{
    duo d;
    end again;
    netio_conn_opts opts;
    if (test_in_memory()) SKIP("there are no sockets in memory");
    duo_init(&d);
    duo_open(&d, &end_all, &end_all);
    for (int i = 0; i < 5; i++) {
        netio_conn c = i ? again.c : d.b.c;
        CHECK_ERR(0, netio_conn_detach(c, &detached, NULL, 0));
        if (i) RUN_UNTIL(d.loop, again.closed);
        adopt_opts(&opts, &again);
        again.echo = true;
        CHECK_OK(CALL(netio_conn_adopt(&again.c, d.loop, detached, &end_plain, &opts)));
        uint64_t got = d.a.got;
        CHECK_OK(CALL(netio_conn_write(d.a.c, "ping", 4)));
        RUN_UNTIL(d.loop, d.a.got == got + 4);
    }
    duo_close(&d);
    CHECK_EQ(1, again.closed);
    end_check(&again);
}

#ifndef _WIN32
static bool is_nonblocking(netio_socket s) { return (fcntl(s, F_GETFL) & O_NONBLOCK) != 0; }

TEST(conn, adopt_and_detach_leave_the_mode_as_it_was)
{
    netio_loop *loop;
    netio_conn_opts opts;
    end e;
    if (test_in_memory()) SKIP("there are no sockets in memory");
    CHECK_OK(test_loop_create(&loop, NULL));
    for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
        int s[2];
        netio_socket back;
        CHECK_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, s));
        if (nonblocking) fcntl(s[0], F_SETFL, fcntl(s[0], F_GETFL) | O_NONBLOCK);
        adopt_opts(&opts, &e);
        CHECK_OK(CALL(netio_conn_adopt(&e.c, loop, s[0], &end_all, &opts)));
        CHECK(is_nonblocking(s[0]));
        RUN_UNTIL(loop, e.opened);
        CHECK_ERR(0, netio_conn_detach(e.c, &back, NULL, 0));
        CHECK_EQ(s[0], back);
        CHECK_EQ(nonblocking, is_nonblocking(back));
        RUN_UNTIL(loop, e.closed);
        CHECK_OK(netio_close(&back));
        CHECK_OK(netio_close(&s[1]));
    }
    test_loop_destroy(&loop);
}
#else
TEST(conn, adopt_and_detach_leave_the_mode_as_it_was) { SKIP("Windows cannot be asked"); }
#endif

TEST(conn, sockets_can_be_asked_for_options)
{
    duo d;
    netio_socket s = NETIO_INVALID_SOCKET;
    int on = 0;
    duo_init(&d);
    duo_open(&d, &end_plain, &end_plain);
    if (test_in_memory()) {
        CHECK_ERR(NETIO_ENOTSUP, netio_conn_socket(d.a.c, &s));
    } else {
        CHECK_OK(netio_conn_socket(d.a.c, &s));
        CHECK_OK(netio_get_option(s, NETIO_OPT_NODELAY, &on)); // netio gathers by itself
        CHECK(on);
        CHECK_OK(netio_conn_socket(d.b.c, &s));
        CHECK_OK(netio_get_option(s, NETIO_OPT_NODELAY, &on));
        CHECK(on);
    }
    duo_close(&d);
}

//================================================================================================
// Counters and hooks
//================================================================================================

TEST(conn, counts_its_traffic)
{
    duo d;
    netio_stats a, b, l, all;
    duo_init(&d);
    duo_open(&d, &end_plain, &end_plain);
    CHECK_OK(netio_conn_stats(d.a.c, &a));
    CHECK_EQ(0, a.bytes_out);
    CHECK_EQ(0, a.writes);
    for (int i = 1; i <= 3; i++) {
        char buf[100] = {0};
        CHECK_OK(CALL(netio_conn_write(d.a.c, buf, 100)));
        RUN_UNTIL(d.loop, d.b.got == 100u * (unsigned)i);
    }
    CHECK_OK(CALL(netio_conn_write(d.b.c, "x", 1)));
    RUN_UNTIL(d.loop, d.a.got == 1);
    test_run_for(d.loop, 30);
    CHECK_OK(netio_conn_stats(d.a.c, &a));
    CHECK_OK(netio_conn_stats(d.b.c, &b));
    CHECK_OK(netio_listener_stats(d.listener, &l));
    netio_loop_stats(d.loop, &all);
    CHECK_EQ(300, a.bytes_out);
    CHECK_EQ(1, a.bytes_in);
    if (!test_rough()) CHECK_EQ(3, a.writes); // there sends come short
    CHECK_EQ(300, b.bytes_in);
    CHECK_EQ(1, b.bytes_out);
    if (!test_rough()) CHECK_EQ(1, b.writes);
    CHECK(b.reads >= 3);
    CHECK(a.opened_ms <= a.active_ms);
    CHECK(netio_loop_now_ms(d.loop) - a.active_ms >= 29); // idle since then
    CHECK_EQ(2, all.opened);
    CHECK_EQ(1, all.accepted);
    CHECK_EQ(2, all.active);
    CHECK_EQ(0, all.closed);
    CHECK_EQ(301, all.bytes_in);
    CHECK_EQ(301, all.bytes_out);
    CHECK(all.turns > 3);
    CHECK_EQ(1, l.accepted);
    CHECK_EQ(1, l.active);
    CHECK_OK(CALL(netio_conn_abort(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    test_run_for(d.loop, 1);
    netio_loop_stats(d.loop, &all);
    CHECK_EQ(0, all.active);
    CHECK_EQ(2, all.closed);
    CHECK_EQ(d.b.err == NETIO_ECONNRESET, all.resets);
    check_reset(&d.b);
    CHECK_EQ(301, all.bytes_in);
    CHECK_OK(netio_listener_stats(d.listener, &l));
    CHECK_EQ(0, l.active);
    CHECK_EQ(1, l.closed);
    CHECK_EQ(d.b.err == NETIO_ECONNRESET, l.resets);
    CHECK_EQ(300, d.b.stats.bytes_in); // still there in on_close
    duo_close(&d);
}

static netio_conn op_conn; // whose operations are listed

static void list_op(void *user, int op, netio_conn c, ptrdiff_t result)
{
    static const char *const names[] = {"?",    "open", "bind",     "connect", "accept",
                                        "send", "recv", "shutdown", "close"};
    size_t at = strlen(ops.list);
    CHECK(user == &ops);
    if (!netio_conn_same(c, op_conn)) return;
    snprintf(ops.list + at, sizeof ops.list - at, "%s %ld, ", names[op < 9 ? op : 0], (long)result);
}

static void list_b(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what == OPENED) op_conn = e->c;
}

TEST(conn, operations_are_told)
{
    if (test_rough()) SKIP("sends come short there");
    for (int who = 0; who < 2; who++) {
        duo d;
        memset(&ops, 0, sizeof ops);
        memset(&op_conn, 0, sizeof op_conn);
        duo_init(&d);
        d.loop_opts.on_op = list_op;
        d.loop_opts.user = &ops;
        d.b.echo = true;
        if (who == 1) d.b.on = list_b;
        duo_start(&d, &end_all, &end_plain);
        if (who == 0) op_conn = d.a.c;
        RUN_UNTIL(d.loop, d.a.opened && d.b.opened);
        CHECK_OK(CALL(netio_conn_write(d.a.c, "12345", 5)));
        RUN_UNTIL(d.loop, d.a.got == 5);
        CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
        RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
        if (who == 0)
            CHECK_STR("connect 0, send 5, recv 5, shutdown 0, recv -2, close 0, ", ops.list);
        else CHECK_STR("recv 5, send 5, recv -2, close 0, ", ops.list);
        duo_close(&d);
    }
}

// What failed is written on the connection: error, stage, address, words.
TEST(conn, error_tells_the_whole_story)
{
    duo d;
    netio_error e;
    char text[NETIO_ADDR_TEXT];
    if (test_under("wine")) SKIP("Wine shows a reset as a clean end");
    duo_init(&d);
    duo_open(&d, &end_plain, &end_plain);
    CHECK_ERR(NETIO_ENOENT, netio_conn_error(d.a.c, &e)); // nothing failed
    CHECK_OK(CALL(netio_conn_abort(d.b.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_ERR(NETIO_ECONNRESET, d.a.error.err);
    CHECK_EQ(NETIO_STAGE_READ, d.a.error.stage);
    CHECK(netio_addr_format(&d.a.error.addr, text, sizeof text) > 0);
    CHECK_STR(d.addr, text);
    CHECK(strlen(d.a.error.text) > 10);
    CHECK(strlen(d.a.error.text) < sizeof d.a.error.text);
    if (!test_in_memory()) CHECK(d.a.error.os_code != 0);
    CHECK_ERR(NETIO_ECONNABORTED, d.b.error.err);
    duo_close(&d);
}

// --- visiting -----------------------------------------------------------------------------------

enum { MANY = 40 };
static struct {
    int visits, dialed;
    end ends[MANY], late[MANY];
    duo *d;
    int mode;
} visit;

static void on_visit(void *user, netio_conn c)
{
    CHECK(user == &visit);
    CHECK(netio_conn_alive(c));
    visit.visits++;
    switch (visit.mode) {
    case 1: CHECK_OK(CALL(netio_conn_abort(c))); break;
    case 2: CHECK_OK(CALL(netio_conn_close(c))); break;
    case 3: // close them all from the first visit
        for (int i = 0; i < MANY; i++) netio_conn_abort(visit.ends[i].c);
        break;
    case 4: // dial as many as there are
        if (visit.dialed < MANY) duo_dial(visit.d, &visit.late[visit.dialed++], &end_plain);
        break;
    default: break;
    }
}

TEST(conn, each_may_add_and_remove)
{
    for (visit.mode = 0; visit.mode < 5; visit.mode++) {
        static end served[2 * MANY + 2];
        duo d;
        pool p;
        int mode = visit.mode, opened = 0;
        memset(&visit, 0, sizeof visit);
        memset(&p, 0, sizeof p);
        p.kind = KIND_POOL;
        p.ends = served;
        p.cap = 2 * MANY + 2;
        visit.mode = mode;
        visit.d = &d;
        duo_init(&d);
        d.listen.conn.user = &p;
        duo_start(&d, &end_plain, &end_plain);
        for (int i = 0; i < MANY; i++) duo_dial(&d, &visit.ends[i], &end_plain);
        RUN_UNTIL(d.loop, p.used == MANY + 1);
        do {
            opened = 0;
            for (int i = 0; i < MANY; i++) opened += visit.ends[i].opened;
            CHECK(netio_loop_run_once(d.loop, 1) >= 0);
        } while (opened < MANY);
        netio_conn_each(d.loop, on_visit, &visit);
        if (mode == 3) CHECK_BETWEEN(1, MANY + 3, visit.visits);
        else CHECK_EQ(2 * (MANY + 1), visit.visits);
        if (mode == 4) {
            for (int i = 0; i < MANY; i++) RUN_UNTIL(d.loop, visit.late[i].opened);
        }
        if (mode == 1 || mode == 2) {
            RUN_UNTIL(d.loop, d.a.closed);
            for (int i = 0; i < MANY; i++) RUN_UNTIL(d.loop, visit.ends[i].closed);
            visit.visits = 0;
            netio_conn_each(d.loop, on_visit, &visit);
            CHECK_EQ(0, visit.visits);
        }
        visit.mode = mode;
        duo_close(&d);
        for (int i = 0; i < MANY; i++) CHECK_EQ(1, visit.ends[i].closed);
        for (size_t i = 0; i < p.used; i++) CHECK_EQ(1, served[i].closed);
    }
}

//================================================================================================

// clang-format off
TEST_MAIN("conn",
    T(conn, callbacks_come_in_one_order),
    T(conn, ends_with_its_loop),
    T(conn, dial_ends_with_its_loop),
    T(conn, needs_no_callback),
    T(conn, replaced_handler_gets_what_follows),
    T(conn, user_pointer_and_identity),
    T(conn, ids_are_never_given_twice),
    T(conn, echo_of_random_sizes),
    T(conn, both_directions_at_once),
    T(conn, echo_byte_by_byte),
    T(conn, bytes_come_and_go_one_at_a_time),
    T(conn, messages_need_no_memory),
    T(conn, all_forms_of_writing_keep_their_order),
    T(conn, all_forms_of_writing_pass_small_buffers),
    T(conn, writes_of_nothing_are_taken),
    T(conn, owned_memory_may_be_static),
    T(conn, owned_memory_comes_back_once_whatever_happens),
    T(conn, writes_that_are_refused_take_nothing),
    T(conn, writes_make_no_sense_without_data),
    T(conn, writes_of_a_turn_leave_in_one_send),
    T(conn, pieces_of_a_write_leave_together),
    T(conn, file_ranges),
    T(conn, file_counts_as_pending_but_not_to_the_limit),
    T(conn, file_that_is_too_short_ends_the_connection),
    T(conn, full_queue_takes_nothing_and_drains_once),
    T(conn, drains_once_for_each_time_above_the_mark),
    T(conn, refused_write_below_the_marks_drains_when_empty),
    T(conn, write_that_would_pass_the_limit_flushes_first),
    T(conn, empty_queue_takes_any_single_write),
    T(conn, slow_reader_gets_8_mib),
    T(conn, congested_connection_is_not_read),
    T(conn, marks_can_be_changed),
    T(conn, marks_that_contradict_are_refused_at_once),
    T(conn, unread_rest_comes_first),
    T(conn, unread_of_every_amount),
    T(conn, unread_at_random_loses_nothing),
    T(conn, kept_bytes_have_a_limit),
    T(conn, unread_belongs_into_on_data),
    T(conn, unread_again_replaces),
    T(conn, paused_gets_no_data_and_no_end),
    T(conn, pause_and_resume_may_repeat),
    T(conn, paused_dial_opens_and_waits),
    T(conn, reset_while_paused_shows_after_resume),
    T(conn, paused_connection_does_not_spin),
    T(conn, adopts_a_socket_with_bytes_that_came_before),
    T(conn, adopted_bytes_come_without_anything_to_read),
    T(conn, adopt_refuses_what_is_no_connection),
    T(conn, detaches_in_on_data_with_the_rest),
    T(conn, detaches_while_paused_with_what_was_kept),
    T(conn, detach_refuses_while_bytes_are_queued_or_it_is_not_open),
    T(conn, detached_socket_can_be_adopted_again),
    T(conn, adopt_and_detach_leave_the_mode_as_it_was),
    T(conn, sockets_can_be_asked_for_options),
    T(conn, counts_its_traffic),
    T(conn, operations_are_told),
    T(conn, error_tells_the_whole_story),
    T(conn, each_may_add_and_remove))
