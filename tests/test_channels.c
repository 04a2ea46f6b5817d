// Channels (examples/common/channels.h): the rules of the format, every way to break them, and two
// ends that talk at random against a model.
#include "test.h"

#include <stdarg.h>

// Their memory counts as netio's does: the runner finds what leaks, and allocations can fail.
static void *zeroed(size_t count, size_t size)
{
    void *p = test_malloc(count * size);
    if (p) memset(p, 0, count * size);
    return p;
}
#define malloc(size) test_malloc(size)
#define calloc(count, size) zeroed(count, size)
#define free(p) test_free(p)
#include "../examples/common/channels.h"

//================================================================================================
// An end, and what happened to it as text
//================================================================================================

typedef struct side {
    channels *m;
    netio_decoder d;
    netio_framing framing;
    uint8_t *wire; // what it sent, and was not delivered
    size_t wire_len, wire_cap;
    char log[4000]; // what it was told
    size_t log_len;
    bool refuses;  // else it accepts
    bool idle;     // it does not read
    bool hurt;     // emit fails
    int emit_err;  // with this
    size_t frames; // that it sent
    size_t largest;
} side;

static void say(side *s, const char *format, ...)
{
    size_t room = sizeof s->log - s->log_len;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(s->log + s->log_len, room, format, args);
    va_end(args);
    CHECK(n >= 0 && (size_t)n < room);
    s->log_len += (size_t)n;
}

// What was said since the last time.
static void said(side *s, const char *want, int line)
{
    if (strcmp(want, s->log) != 0)
        test_fail(__FILE__, line, "want \"%s\", got \"%s\"", want, s->log);
    s->log[s->log_len = 0] = 0;
}
#define SAID(s, want) said((s), (want), __LINE__)

static int emit(void *user, const netio_frame *frame)
{
    side *s = (side *)user;
    size_t need = netio_encode_bound(&s->framing, frame->len);
    if (s->hurt) return s->emit_err;
    if (s->wire_len + need > s->wire_cap) {
        s->wire_cap = 2 * (s->wire_len + need);
        s->wire = (uint8_t *)test_realloc(s->wire, s->wire_cap);
    }
    ptrdiff_t n =
        netio_encode_into(s->wire + s->wire_len, s->wire_cap - s->wire_len, &s->framing, frame);
    CHECK(n > 0);
    s->wire_len += (size_t)n;
    s->frames++;
    if (frame->len > s->largest) s->largest = frame->len;
    return 0;
}

static void start(side *s, int mode, bool dialed, size_t window, size_t max)
{
    channels_opts opts = {0};
    memset(s, 0, sizeof *s);
    s->framing = channels_framing(mode);
    opts.mode = mode;
    opts.dialed = dialed;
    opts.window = window;
    opts.max = max;
    opts.emit = emit;
    opts.user = s;
    CHECK_OK(channels_create(&s->m, &opts));
    CHECK_OK(netio_decoder_init(&s->d, s->framing, NULL, 0));
}

static void stop(side *s)
{
    channels_destroy(s->m);
    netio_decoder_free(&s->d);
    free(s->wire);
}

static void read_all(side *s, uint16_t id)
{
    netio_buf piece;
    while ((piece = channels_front(s->m, id)).data) {
        if (piece.len <= 40) say(s, "read %u %.*s\n", id, (int)piece.len, (const char *)piece.data);
        CHECK_OK(channels_drop(s->m, id, piece.len));
    }
    if (channels_ended(s->m, id)) say(s, "all %u\n", id);
}

static int on_frame(side *s, const netio_frame *frame)
{
    channels_event e = {0};
    int err = channels_input(s->m, frame, &e);
    if (err == NETIO_ENOBUFS) say(s, "full %u\n", (unsigned)channels_get_stats(s->m).full);
    if (err == NETIO_ENOBUFS) return 0;
    if (err < 0) say(s, "%s: %s\n", netio_errname(err), channels_why(s->m));
    if (err < 0) return err;
    switch (e.type) {
    case CHANNELS_OPEN:
        say(s, "open %u %.*s\n", e.id, (int)e.label.len, (const char *)e.label.data);
        if (s->refuses) CHECK_OK(channels_close(s->m, e.id, NETIO_EACCES));
        else CHECK_OK(channels_accept(s->m, e.id));
        break;
    case CHANNELS_ACCEPTED: say(s, "accepted %u\n", e.id); break;
    case CHANNELS_DATA: say(s, "data %u %u\n", e.id, (unsigned)e.len); break;
    case CHANNELS_CREDITED: say(s, "credited %u\n", e.id); break;
    case CHANNELS_ENDED: say(s, "ended %u\n", e.id); break;
    case CHANNELS_CLOSED: say(s, "closed %u %s\n", e.id, netio_errname(e.err)); break;
    case CHANNELS_PONG: say(s, "pong\n"); break;
    default: break;
    }
    if (!s->idle && (e.type == CHANNELS_DATA || e.type == CHANNELS_ENDED)) read_all(s, e.id);
    return channels_keep(s->m);
}

// Bytes to an end, in a block that is gone afterwards.
static int hand(side *s, const void *data, size_t len)
{
    netio_frame frame;
    int r, err = 0;
    uint8_t *piece = (uint8_t *)malloc(len);
    memcpy(piece, data, len);
    CHECK_OK(netio_decoder_feed(&s->d, piece, len));
    while ((r = netio_decoder_next(&s->d, &frame)) > 0 && err == 0) err = on_frame(s, &frame);
    if (err == 0) CHECK_OK(r);
    free(piece);
    return err;
}

static int frame_to(side *s, uint16_t id, const void *data, size_t len)
{
    uint8_t header[4];
    netio_frame frame;
    memset(&frame, 0, sizeof frame);
    header[0] = (uint8_t)(id >> 8);
    header[1] = (uint8_t)id;
    header[2] = (uint8_t)(len >> 8);
    header[3] = (uint8_t)len;
    frame.header = header;
    frame.header_len = 4;
    frame.data = (const uint8_t *)data;
    frame.len = len;
    return on_frame(s, &frame);
}

// What one end sent arrives at the other.
static void pass(side *from, side *to)
{
    size_t len = from->wire_len;
    from->wire_len = 0;
    if (len) CHECK_OK(hand(to, from->wire, len));
}

static void exchange(side *a, side *b)
{
    while (a->wire_len || b->wire_len) {
        pass(a, b);
        pass(b, a);
    }
}

// Two ends with channel 1, opened by the first; nothing said or under way.
static void pair(side *a, side *b, size_t window)
{
    uint16_t id = 0;
    start(a, CHANNELS_CREDIT, true, window, 0);
    start(b, CHANNELS_CREDIT, false, window, 0);
    CHECK_OK(channels_open(a->m, &id, "one", 3, a));
    CHECK_EQ(1, id);
    exchange(a, b);
    SAID(b, "open 1 one\n");
    SAID(a, "accepted 1\n");
}

static void stop_pair(side *a, side *b)
{
    stop(a);
    stop(b);
}

static side a, b;
static uint8_t bulk[200000];

//================================================================================================
// Streams with credit
//================================================================================================

TEST(channels, both_ends_open_and_each_channel_is_in_order)
{
    uint16_t id = 0;
    pair(&a, &b, 0);
    CHECK_OK(channels_open(b.m, &id, "two", 3, NULL));
    CHECK_EQ(2, id);
    exchange(&a, &b);
    SAID(&a, "open 2 two\n");
    SAID(&b, "accepted 2\n");
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(1, channels_send(a.m, 1, &"abc"[i], 1));
        CHECK_EQ(1, channels_send(a.m, 2, &"xyz"[i], 1));
    }
    exchange(&a, &b);
    SAID(&b, "data 1 1\nread 1 a\ndata 2 1\nread 2 x\ndata 1 1\nread 1 b\ndata 2 1\nread 2 y\n"
             "data 1 1\nread 1 c\ndata 2 1\nread 2 z\n");
    CHECK_EQ(2, channels_get_stats(a.m).open);
    CHECK(channels_user(a.m, 1) == &a && !channels_user(a.m, 2));
    channels_set_user(a.m, 2, &b);
    CHECK(channels_user(a.m, 2) == &b);
    stop_pair(&a, &b);
}

TEST(channels, an_unread_channel_takes_one_window_and_stalls_no_other)
{
    uint16_t id = 0;
    pair(&a, &b, 50000);
    b.idle = true;
    test_fill(bulk, sizeof bulk, 7);
    CHECK_EQ(50000, channels_send(a.m, 1, bulk, sizeof bulk));
    CHECK_ERR(NETIO_ENOBUFS, channels_send(a.m, 1, bulk, 1));
    CHECK(a.largest == CHANNELS_PIECE);
    exchange(&a, &b);
    CHECK_OK(channels_open(a.m, &id, NULL, 0, NULL));
    exchange(&a, &b);
    b.log[b.log_len = 0] = a.log[a.log_len = 0] = 0;
    b.idle = false;
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(40000, channels_send(a.m, id, bulk, 40000));
        exchange(&a, &b);
        b.log[b.log_len = 0] = 0;
    }
    SAID(&a, ""); // and none of it was said of channel 1
    CHECK_ERR(NETIO_ENOBUFS, channels_send(a.m, 1, bulk, 1));
    size_t got = 0;
    netio_buf piece;
    while ((piece = channels_front(b.m, 1)).data) {
        CHECK_MEM(bulk + got, piece.data, piece.len);
        got += piece.len;
        CHECK_OK(channels_drop(b.m, 1, piece.len));
    }
    CHECK_EQ(50000, got);
    exchange(&a, &b);
    SAID(&a, "credited 1\n");
    // Credit comes in lumps: it was given when half was read, what came later is less than that.
    CHECK_BETWEEN(25000, 50000, channels_send(a.m, 1, bulk, sizeof bulk));
    stop_pair(&a, &b);
}

TEST(channels, credit_is_exact_to_the_byte)
{
    for (size_t window = 1; window < 12; window++) {
        size_t sent = 0;
        pair(&a, &b, window);
        for (int i = 0; i < 100; i++) {
            ptrdiff_t n = channels_send(a.m, 1, "0123456789ab", 12);
            CHECK(n == NETIO_ENOBUFS || (n > 0 && (size_t)n <= window));
            if (n > 0) sent += (size_t)n;
            exchange(&a, &b);
        }
        CHECK(sent >= 50 * window);
        stop_pair(&a, &b);
    }
}

TEST(channels, many_small_frames_cost_no_more_than_a_large_one)
{
    pair(&a, &b, 100000);
    b.idle = true;
    long long before = test_bytes();
    for (int i = 0; i < 100000; i++) {
        CHECK_EQ(1, channels_send(a.m, 1, &"0123456789"[i % 10], 1));
        pass(&a, &b);
        b.log[b.log_len = 0] = 0;
    }
    if (before >= 0) CHECK_BETWEEN(100000, 150000, test_bytes() - before);
    for (int i = 0; i < 100000; i++) {
        netio_buf piece = channels_front(b.m, 1);
        CHECK(piece.len > 0 && *(const char *)piece.data == "0123456789"[i % 10]);
        CHECK_OK(channels_drop(b.m, 1, 1));
    }
    CHECK(!channels_front(b.m, 1).data);
    stop_pair(&a, &b);
}

TEST(channels, what_was_read_in_place_is_not_copied)
{
    pair(&a, &b, 0);
    test_fill(bulk, sizeof bulk, 1);
    long before = test_allocs();
    CHECK_OK(frame_to(&b, 1, bulk, 5000)); // on_frame reads it
    CHECK_EQ(before, test_allocs());
    b.idle = true;
    CHECK_OK(frame_to(&b, 1, bulk, 5000));
    CHECK_EQ(before + 1, test_allocs());
    stop_pair(&a, &b);
}

TEST(channels, reading_goes_on_across_pieces)
{
    pair(&a, &b, 0);
    b.idle = true;
    CHECK_OK(frame_to(&b, 1, "hello ", 6));
    channels_event e = {0};
    netio_frame frame = {0};
    uint8_t header[4] = {0, 1, 0, 5};
    frame.data = (const uint8_t *)"world";
    frame.len = 5;
    frame.header = header;
    frame.header_len = 4;
    CHECK_OK(channels_input(b.m, &frame, &e));
    CHECK_ERR(NETIO_EBUSY, channels_input(b.m, &frame, &e)); // keep was forgotten
    CHECK_OK(channels_drop(b.m, 1, 8));                      // the kept ones and two in place
    CHECK_EQ(3, channels_front(b.m, 1).len);
    CHECK(channels_front(b.m, 1).data == frame.data + 2);
    CHECK_OK(channels_keep(b.m));
    CHECK(channels_front(b.m, 1).data != frame.data + 2);
    CHECK_MEM("rld", channels_front(b.m, 1).data, 3);
    CHECK_ERR(NETIO_EINVAL, channels_drop(b.m, 1, 4));
    CHECK(!channels_front(b.m, 1).data);
    CHECK(!channels_ended(b.m, 1));
    stop_pair(&a, &b);
}

TEST(channels, nothing_flows_before_accept)
{
    uint16_t id = 0;
    start(&a, CHANNELS_CREDIT, true, 0, 0);
    start(&b, CHANNELS_CREDIT, false, 0, 0);
    CHECK_OK(channels_open(a.m, &id, "x", 1, NULL));
    CHECK_ERR(NETIO_ENOBUFS, channels_send(a.m, id, "early", 5));
    CHECK_OK(channels_end(a.m, id)); // waits for it
    CHECK_OK(channels_end(a.m, id));
    CHECK_ERR(NETIO_EPIPE, channels_send(a.m, id, "late", 4));
    CHECK_ERR(NETIO_EINVAL, channels_accept(a.m, id)); // it is for the other end
    CHECK_EQ(1, a.frames);
    exchange(&a, &b);
    SAID(&b, "open 1 x\nended 1\nall 1\n");
    CHECK_ERR(NETIO_EINVAL, channels_accept(b.m, id));
    CHECK_EQ(6, channels_send(b.m, id, "answer", 6));
    exchange(&a, &b);
    SAID(&a, "accepted 1\ndata 1 6\nread 1 answer\n");
    stop_pair(&a, &b);
}

TEST(channels, one_direction_ends_and_the_other_goes_on)
{
    pair(&a, &b, 0);
    CHECK_EQ(5, channels_send(a.m, 1, "query", 5));
    CHECK_OK(channels_end(a.m, 1));
    CHECK_ERR(NETIO_EPIPE, channels_send(a.m, 1, "more", 4));
    exchange(&a, &b);
    SAID(&b, "data 1 5\nread 1 query\nended 1\nall 1\n");
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(sizeof bulk / 2, channels_send(b.m, 1, bulk, sizeof bulk / 2));
        exchange(&a, &b);
        a.log[a.log_len = 0] = 0;
    }
    CHECK_OK(channels_end(b.m, 1));
    exchange(&a, &b);
    SAID(&a, "ended 1\nall 1\n");
    stop_pair(&a, &b);
}

TEST(channels, the_end_is_reached_when_all_was_read)
{
    pair(&a, &b, 0);
    b.idle = true;
    CHECK_EQ(4, channels_send(a.m, 1, "tail", 4));
    CHECK_OK(channels_end(a.m, 1));
    pass(&a, &b);
    SAID(&b, "data 1 4\nended 1\n");
    CHECK(!channels_ended(b.m, 1));
    CHECK_OK(channels_drop(b.m, 1, 3));
    CHECK(!channels_ended(b.m, 1));
    CHECK_OK(channels_drop(b.m, 1, 1));
    CHECK(channels_ended(b.m, 1));
    CHECK_EQ(0, b.wire_len); // no credit for who sends no more
    stop_pair(&a, &b);
}

//================================================================================================
// Closing, numbers, limits
//================================================================================================

static void end_both(void)
{
    CHECK_OK(channels_end(a.m, 1));
    CHECK_OK(channels_end(b.m, 1));
    exchange(&a, &b);
    SAID(&a, "ended 1\nall 1\n");
    SAID(&b, "ended 1\nall 1\n");
}

static void none_open(void)
{
    CHECK_EQ(0, channels_get_stats(a.m).open);
    CHECK_EQ(0, channels_get_stats(b.m).open);
}

TEST(channels, a_clean_end_is_told_to_nobody)
{
    pair(&a, &b, 0);
    end_both();
    CHECK_OK(channels_close(a.m, 1, 0));
    CHECK_ERR(NETIO_ENOENT, channels_send(a.m, 1, "x", 1));
    CHECK_ERR(NETIO_ENOENT, channels_close(a.m, 1, 0));
    exchange(&a, &b);
    CHECK_EQ(1, channels_get_stats(a.m).open); // the other end has not said so yet
    CHECK_OK(channels_close(b.m, 1, 0));
    CHECK_EQ(0, channels_get_stats(b.m).open);
    exchange(&a, &b);
    none_open();
    SAID(&a, "");
    SAID(&b, "");
    stop_pair(&a, &b);
}

TEST(channels, what_waits_is_read_though_the_peer_is_done)
{
    pair(&a, &b, 0);
    b.idle = true;
    CHECK_EQ(4, channels_send(a.m, 1, "tail", 4));
    CHECK_OK(channels_end(a.m, 1));
    CHECK_OK(channels_end(b.m, 1));
    exchange(&a, &b);
    CHECK_OK(channels_close(a.m, 1, 0));
    exchange(&a, &b);
    CHECK_MEM("tail", channels_front(b.m, 1).data, 4);
    CHECK_OK(channels_drop(b.m, 1, 4));
    CHECK_OK(channels_close(b.m, 1, 0));
    exchange(&a, &b);
    none_open();
    stop_pair(&a, &b);
}

TEST(channels, closing_early_gives_the_peer_the_reason)
{
    static const struct {
        int err;
        const char *said;
    } cases[] = {{0, "closed 1 ECONNRESET\n"},
                 {NETIO_ETIMEDOUT, "closed 1 ETIMEDOUT\n"},
                 {-65535, "closed 1 EUNKNOWN\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pair(&a, &b, 0);
        CHECK_ERR(NETIO_EINVAL, channels_close(a.m, 1, 1));
        CHECK_ERR(NETIO_EINVAL, channels_close(a.m, 1, -65536));
        b.idle = true;
        CHECK_EQ(4, channels_send(b.m, 1, "late", 4)); // under way when it closes
        CHECK_OK(channels_close(a.m, 1, cases[i].err));
        pass(&b, &a);
        CHECK_EQ(1, channels_get_stats(a.m).late);
        SAID(&a, "");
        exchange(&a, &b);
        SAID(&b, cases[i].said);
        CHECK_ERR(NETIO_ENOENT, channels_close(b.m, 1, 0));
        none_open();
        stop_pair(&a, &b);
    }
}

TEST(channels, unread_bytes_make_no_clean_end)
{
    pair(&a, &b, 0);
    b.idle = true;
    CHECK_EQ(4, channels_send(a.m, 1, "tail", 4));
    CHECK_OK(channels_end(a.m, 1));
    CHECK_OK(channels_end(b.m, 1));
    exchange(&a, &b);
    CHECK_OK(channels_close(b.m, 1, 0));
    a.log[a.log_len = 0] = 0;
    exchange(&a, &b);
    SAID(&a, "closed 1 ECONNRESET\n");
    none_open();
    stop_pair(&a, &b);
}

TEST(channels, both_may_close_at_once)
{
    for (int how = 0; how < 3; how++) { // resets, clean ends, one of each
        pair(&a, &b, 0);
        if (how > 0) end_both();
        CHECK_OK(channels_close(a.m, 1, how == 1 ? 0 : NETIO_EPIPE));
        CHECK_OK(channels_close(b.m, 1, how == 0 ? NETIO_EIO : 0));
        exchange(&a, &b);
        none_open();
        SAID(&a, "");
        SAID(&b, "");
        stop_pair(&a, &b);
    }
}

TEST(channels, a_refusal_has_its_reason)
{
    uint16_t id = 0;
    pair(&a, &b, 0);
    b.refuses = true;
    CHECK_OK(channels_open(a.m, &id, "secret", 6, NULL));
    CHECK_EQ(3, id);
    exchange(&a, &b);
    SAID(&b, "open 3 secret\n");
    SAID(&a, "closed 3 EACCES\n");
    CHECK_EQ(1, channels_get_stats(a.m).open);
    CHECK_EQ(1, channels_get_stats(b.m).open);
    stop_pair(&a, &b);
}

TEST(channels, given_up_before_the_answer)
{
    uint16_t id = 0;
    for (int refuses = 0; refuses < 2; refuses++) {
        pair(&a, &b, 0);
        b.refuses = refuses;
        CHECK_OK(channels_open(a.m, &id, "", 0, NULL));
        CHECK_OK(channels_close(a.m, id, NETIO_ECANCELED));
        exchange(&a, &b);
        SAID(&a, "");
        SAID(&b, refuses ? "open 3 \n" : "open 3 \nclosed 3 ECANCELED\n");
        CHECK_EQ(1, channels_get_stats(a.m).open);
        CHECK_EQ(1, channels_get_stats(b.m).open);
        stop_pair(&a, &b);
    }
}

TEST(channels, a_number_is_used_again_only_when_both_have_closed)
{
    uint16_t id = 0;
    uint8_t late[9];
    pair(&a, &b, 0);
    CHECK_OK(channels_close(a.m, 1, NETIO_EPIPE));
    CHECK_EQ(sizeof late, a.wire_len);
    memcpy(late, a.wire, sizeof late); // this word takes its time
    a.wire_len = 0;
    for (unsigned want = 3; want <= 65535; want += 2) {
        CHECK_OK(channels_open(a.m, &id, NULL, 0, NULL));
        CHECK_EQ(want, id);
        CHECK_OK(channels_close(a.m, id, NETIO_EPIPE));
        exchange(&a, &b);
        a.log[a.log_len = 0] = b.log[b.log_len = 0] = 0;
    }
    CHECK_OK(channels_open(a.m, &id, NULL, 0, NULL));
    CHECK_EQ(3, id); // 1 is not free yet
    CHECK_OK(hand(&b, late, sizeof late));
    exchange(&a, &b);
    for (unsigned want = 5; want <= 65535; want += 2) {
        CHECK_OK(channels_open(a.m, &id, NULL, 0, NULL));
        CHECK_OK(channels_close(a.m, id, NETIO_EPIPE));
        exchange(&a, &b);
        a.log[a.log_len = 0] = b.log[b.log_len = 0] = 0;
    }
    CHECK_OK(channels_open(a.m, &id, NULL, 0, NULL));
    CHECK_EQ(1, id);
    stop_pair(&a, &b);
}

TEST(channels, no_more_than_max_at_once)
{
    uint16_t id = 0;
    start(&a, CHANNELS_CREDIT, true, 0, 3);
    start(&b, CHANNELS_CREDIT, false, 0, 2);
    for (int i = 0; i < 3; i++) CHECK_OK(channels_open(a.m, &id, NULL, 0, NULL));
    CHECK_ERR(NETIO_EBUSY, channels_open(a.m, &id, NULL, 0, NULL));
    exchange(&a, &b);
    SAID(&a, "accepted 1\naccepted 3\nclosed 5 EBUSY\n");
    SAID(&b, "open 1 \nopen 3 \n");
    CHECK_EQ(1, channels_get_stats(b.m).refused);
    CHECK_ERR(NETIO_EBUSY, channels_open(b.m, &id, NULL, 0, NULL));
    CHECK_OK(channels_close(b.m, 3, NETIO_EPIPE));
    CHECK_ERR(NETIO_EBUSY, channels_open(b.m, &id, NULL, 0, NULL)); // not answered yet
    exchange(&a, &b);
    CHECK_OK(channels_open(b.m, &id, NULL, 0, NULL));
    exchange(&a, &b);
    CHECK_EQ(2, channels_get_stats(a.m).open);
    CHECK_EQ(2, channels_get_stats(b.m).open);
    stop_pair(&a, &b);
}

TEST(channels, a_ping_is_answered)
{
    pair(&a, &b, 0);
    CHECK_OK(channels_ping(a.m));
    exchange(&a, &b);
    SAID(&a, "pong\n");
    SAID(&b, "");
    stop_pair(&a, &b);
}

//================================================================================================
// What breaks the rules
//================================================================================================

// An end that did not dial, with channels in all states: 1 up, 3 offered, 5 up and ended by the
// peer, 7 up and ended by both, 9 closed here, 11 closed cleanly by the peer; 2 asked for.
static void all_states(side *s)
{
    uint16_t id = 0;
    start(s, CHANNELS_CREDIT, false, 100, 7);
    for (uint8_t number = 1; number <= 11; number += 2) {
        uint8_t open[7] = {1, 0, number, 0, 0, 0, 100};
        channels_event e = {0};
        netio_frame frame = {0};
        uint8_t header[4] = {0, 0, 0, 7};
        frame.data = open;
        frame.len = sizeof open;
        frame.header = header;
        frame.header_len = 4;
        CHECK_OK(channels_input(s->m, &frame, &e));
        if (number != 3) CHECK_OK(channels_accept(s->m, number));
    }
    CHECK_OK(frame_to(s, 0, "\4\0\5", 3));
    CHECK_OK(frame_to(s, 0, "\4\0\7", 3));
    CHECK_OK(frame_to(s, 0, "\4\0\13", 3));
    CHECK_OK(channels_end(s->m, 7));
    CHECK_OK(channels_end(s->m, 11));
    CHECK_OK(frame_to(s, 0, "\5\0\13\0\0", 5));
    CHECK_OK(channels_close(s->m, 9, NETIO_EPIPE));
    CHECK_OK(channels_open(s->m, &id, NULL, 0, NULL));
    CHECK_EQ(2, id);
    s->log[s->log_len = 0] = 0;
}

TEST(channels, a_peer_that_breaks_a_rule_is_told_apart)
{
    static const struct {
        uint16_t id;
        const char *bytes;
        size_t len;
        const char *why;
    } bad[] = {
// clang-format off
#define B(bytes) bytes, sizeof bytes - 1
        {4, B("x"), "data for a channel that is not open"},
        {2, B("x"), "data for a channel before ACCEPT"},
        {3, B("x"), "data for a channel before ACCEPT"},
        {5, B("x"), "data for a channel after its END"},
        {11, B("x"), "data for a channel after its END"},
        {1, B(""), "a frame without data"},
        {0, B(""), "an unknown control frame"},
        {0, B("\0"), "an unknown control frame"},
        {0, B("\10\0\1"), "an unknown control frame"},
        {0, B("\377"), "an unknown control frame"},
        {0, B("\4\0"), "a malformed control frame"},
        {0, B("\4\0\0"), "a malformed control frame"},
        {0, B("\4\0\1x"), "a malformed control frame"},
        {0, B("\3\0\1\0\0\1"), "a malformed control frame"},
        {0, B("\3\0\1\0\0\0\1x"), "a malformed control frame"},
        {0, B("\5\0\1\0"), "a malformed control frame"},
        {0, B("\6\0"), "a malformed control frame"},
        {0, B("\7x"), "a malformed control frame"},
        {0, B("\1\0\15\0\0\1"), "a malformed control frame"},
        {0, B("\1\0\0\0\0\0\1"), "a malformed control frame"},
        {0, B("\1\0\14\0\0\0\1"), "OPEN with a number of ours"},
        {0, B("\1\0\1\0\0\0\1"), "OPEN for a channel that is open"},
        {0, B("\1\0\11\0\0\0\1"), "OPEN for a channel that is open"}, // closed here, not answered
        {0, B("\1\0\15\100\0\0\1"), "OPEN with too large a window"},
        {0, B("\2\0\1\0\0\0\1"), "ACCEPT out of place"},      // ours to say
        {0, B("\2\0\3\0\0\0\1"), "ACCEPT out of place"},
        {0, B("\2\0\2\100\0\0\1"), "ACCEPT out of place"},    // too large a window
        {0, B("\2\0\4\0\0\0\1"), "a word about a channel that is not open"},
        {0, B("\3\0\1\0\0\0\0"), "CREDIT out of place"},
        {0, B("\3\0\1\77\377\377\235"), "CREDIT out of place"}, // above 2^30 with what there is
        {0, B("\3\0\1\377\377\377\377"), "CREDIT out of place"},
        {0, B("\3\0\2\0\0\0\1"), "CREDIT out of place"},
        {0, B("\3\0\3\0\0\0\1"), "CREDIT out of place"},
        {0, B("\3\0\4\0\0\0\1"), "a word about a channel that is not open"},
        {0, B("\3\0\13\0\0\0\1"), "a word about a channel after its CLOSE"},
        {0, B("\4\0\3"), "END out of place"},
        {0, B("\4\0\5"), "END out of place"},
        {0, B("\4\0\2"), "END out of place"},
        {0, B("\4\0\4"), "a word about a channel that is not open"},
        {0, B("\5\0\1\0\0"), "a clean CLOSE before both ends"},
        {0, B("\5\0\5\0\0"), "a clean CLOSE before both ends"},
        {0, B("\5\0\2\0\0"), "a clean CLOSE before both ends"},
        {0, B("\5\0\11\0\0"), "a clean CLOSE before both ends"},
        {0, B("\5\0\4\0\1"), "a word about a channel that is not open"},
        {0, B("\5\0\13\0\1"), "a word about a channel after its CLOSE"},
        {0, B("\5\0\13\0\0"), "a word about a channel after its CLOSE"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        all_states(&b);
        CHECK_ERR(NETIO_EPROTO, frame_to(&b, bad[i].id, bad[i].bytes, bad[i].len));
        if (strcmp(bad[i].why, channels_why(b.m)) != 0)
            test_fail(__FILE__, __LINE__, "case %u: want \"%s\", got \"%s\"", (unsigned)i,
                      bad[i].why, channels_why(b.m));
        size_t frames = b.frames;
        uint16_t id = 0;
        CHECK_ERR(NETIO_EPROTO, frame_to(&b, 1, "good", 4)); // it stays
        CHECK_ERR(NETIO_EPROTO, channels_send(b.m, 1, "x", 1));
        CHECK_ERR(NETIO_EPROTO, channels_end(b.m, 1));
        CHECK_ERR(NETIO_EPROTO, channels_close(b.m, 1, 0));
        CHECK_ERR(NETIO_EPROTO, channels_accept(b.m, 3));
        CHECK_ERR(NETIO_EPROTO, channels_open(b.m, &id, NULL, 0, NULL));
        CHECK_ERR(NETIO_EPROTO, channels_drop(b.m, 1, 1));
        CHECK_ERR(NETIO_EPROTO, channels_ping(b.m));
        CHECK_ERR(NETIO_EPROTO, channels_keep(b.m));
        CHECK_EQ(frames, b.frames);
        stop(&b);
    }
}

TEST(channels, data_beyond_its_credit_ends_it_at_the_byte)
{
    all_states(&b);
    b.idle = true;
    CHECK_OK(frame_to(&b, 1, bulk, 99));
    CHECK_OK(frame_to(&b, 1, bulk, 1));
    CHECK_OK(frame_to(&b, 9, bulk, 100)); // closed here: counts all the same
    CHECK_EQ(1, channels_get_stats(b.m).late);
    CHECK_ERR(NETIO_EPROTO, frame_to(&b, 1, bulk, 1));
    CHECK_STR("more data than there was credit for", channels_why(b.m));
    stop(&b);
    all_states(&b);
    CHECK_OK(frame_to(&b, 9, bulk, 100));
    CHECK_ERR(NETIO_EPROTO, frame_to(&b, 9, bulk, 1)); // nobody reads it, so no credit comes
    stop(&b);
}

TEST(channels, labels_have_a_longest_length)
{
    uint8_t open[8 + CHANNELS_LABEL_MAX] = {1, 0, 3, 0, 0, 0, 1};
    uint16_t id = 0;
    pair(&a, &b, 0);
    CHECK_ERR(NETIO_EINVAL, channels_open(a.m, &id, bulk, CHANNELS_LABEL_MAX + 1, NULL));
    CHECK_ERR(NETIO_EINVAL, channels_open(a.m, &id, NULL, 1, NULL));
    CHECK_EQ(0, a.wire_len);
    memset(open + 7, 'l', CHANNELS_LABEL_MAX + 1);
    CHECK_OK(frame_to(&b, 0, open, 7 + CHANNELS_LABEL_MAX));
    open[2] = 5;
    CHECK_ERR(NETIO_EPROTO, frame_to(&b, 0, open, sizeof open));
    CHECK_STR("OPEN with too long a label", channels_why(b.m));
    stop_pair(&a, &b);
}

TEST(channels, what_is_legal_in_each_state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *says;
    } good[] = {
        // clang-format off
        {B("\2\0\2\0\0\0\0"), "accepted 2\n"},
        {B("\5\0\2\0\62"), "closed 2 ECONNREFUSED\n"},
        {B("\3\0\1\77\377\377\234"), ""},
        {B("\3\0\5\0\0\0\1"), ""},
        {B("\3\0\11\0\0\0\1"), ""},    // closed here: may be under way
        {B("\4\0\1"), "ended 1\nall 1\n"},
        {B("\4\0\11"), ""},
        {B("\5\0\1\0\63"), "closed 1 ECONNRESET\n"},
        {B("\5\0\3\0\4"), "closed 3 ECANCELED\n"},
        {B("\5\0\5\0\63"), "closed 5 ECONNRESET\n"},
        {B("\5\0\7\0\0"), ""},
        {B("\5\0\7\0\63"), "closed 7 ECONNRESET\n"},
        {B("\5\0\11\0\23"), ""},
        {B("\1\0\15\0\0\0\0"), ""}, // above max: refused
        {B("\6"), ""},
        {B("\7"), "pong\n"},
    // clang-format on
#undef B
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        all_states(&b);
        CHECK_OK(frame_to(&b, 0, good[i].bytes, good[i].len));
        SAID(&b, good[i].says);
        stop(&b);
    }
}

TEST(channels, refusals_above_max_are_forgotten_one_for_one)
{
    all_states(&b); // 7 of 7
    CHECK_OK(frame_to(&b, 0, "\1\0\15\0\0\0\0", 7));
    CHECK_OK(frame_to(&b, 0, "\1\0\17\0\0\0\0", 7));
    CHECK_OK(frame_to(&b, 0, "\5\0\15\0\43", 5));
    CHECK_OK(frame_to(&b, 0, "\5\0\17\0\43", 5));
    CHECK_EQ(2, channels_get_stats(b.m).refused);
    CHECK_ERR(NETIO_EPROTO, frame_to(&b, 0, "\5\0\15\0\43", 5));
    stop(&b);
}

TEST(channels, calls_that_make_no_sense_are_refused)
{
    channels *m;
    channels_opts opts = {0};
    uint16_t id = 0;
    CHECK_ERR(NETIO_EINVAL, channels_create(&m, &opts));
    opts.emit = emit;
    opts.mode = 3;
    CHECK_ERR(NETIO_EINVAL, channels_create(&m, &opts));
    opts.mode = -1;
    CHECK_ERR(NETIO_EINVAL, channels_create(&m, &opts));
    opts.mode = CHANNELS_CREDIT;
    opts.window = (size_t)CHANNELS_CREDIT_MAX + 1;
    CHECK_ERR(NETIO_EINVAL, channels_create(&m, &opts));
    opts.window = 0;
    opts.max = 65537;
    CHECK_ERR(NETIO_EINVAL, channels_create(&m, &opts));
    channels_destroy(NULL);

    pair(&a, &b, 0);
    CHECK_ERR(NETIO_EINVAL, channels_add(a.m, 7, NULL));
    CHECK_ERR(NETIO_ENOENT, channels_send(a.m, 7, "x", 1));
    CHECK_ERR(NETIO_ENOENT, channels_end(a.m, 7));
    CHECK_ERR(NETIO_ENOENT, channels_close(a.m, 7, 0));
    CHECK_ERR(NETIO_ENOENT, channels_accept(a.m, 7));
    CHECK_ERR(NETIO_ENOENT, channels_drop(a.m, 7, 0));
    CHECK(!channels_front(a.m, 7).data && !channels_user(a.m, 7) && !channels_ended(a.m, 7));
    CHECK_EQ(0, channels_send(a.m, 1, "", 0));
    CHECK_ERR(NETIO_EINVAL, channels_drop(a.m, 1, 1));
    CHECK_OK(channels_drop(a.m, 1, 0));
    netio_frame bare = {0};
    channels_event e = {0};
    bare.data = bulk;
    bare.len = 4;
    CHECK_ERR(NETIO_EINVAL, channels_input(a.m, &bare, &e)); // another framing's
    CHECK_EQ(4, channels_send(a.m, 1, "fine", 4));
    stop_pair(&a, &b);

    start(&a, CHANNELS_BARE, true, 0, 1);
    CHECK_ERR(NETIO_EINVAL, channels_open(a.m, &id, NULL, 0, NULL));
    CHECK_ERR(NETIO_EINVAL, channels_ping(a.m));
    CHECK_OK(channels_add(a.m, 7, NULL));
    CHECK_ERR(NETIO_EEXIST, channels_add(a.m, 7, NULL));
    CHECK_ERR(NETIO_EBUSY, channels_add(a.m, 8, NULL));
    CHECK_ERR(NETIO_EINVAL, channels_end(a.m, 7));
    CHECK_ERR(NETIO_EINVAL, channels_accept(a.m, 7));
    stop(&a);
}

TEST(channels, a_link_that_is_full_takes_what_it_can)
{
    pair(&a, &b, 0);
    a.hurt = true;
    a.emit_err = NETIO_ENOBUFS;
    CHECK_ERR(NETIO_ENOBUFS, channels_send(a.m, 1, "x", 1));
    a.hurt = false;
    CHECK_EQ(1, channels_send(a.m, 1, "x", 1)); // for data that is no end
    exchange(&a, &b);
    SAID(&b, "data 1 1\nread 1 x\n");
    SAID(&a, "");
    a.hurt = true;
    CHECK_ERR(NETIO_ENOBUFS, channels_end(a.m, 1)); // a word of control is lost: all is
    a.hurt = false;
    CHECK_ERR(NETIO_ENOBUFS, channels_send(a.m, 1, "x", 1));
    CHECK_STR("a control frame could not be sent", channels_why(a.m));
    stop_pair(&a, &b);
}

TEST(channels, running_out_of_memory_loses_nothing_unsaid)
{
    uint16_t id = 0;
    channels *m;
    channels_opts opts = {0};
    opts.emit = emit;
    opts.mode = CHANNELS_TEXT;
    for (int n = 1; n <= 2; n++) {
        test_alloc_fail_at(n);
        CHECK_ERR(NETIO_ENOMEM, channels_create(&m, &opts));
    }
    pair(&a, &b, 0);
    test_alloc_fail_at(1);
    CHECK_ERR(NETIO_ENOMEM, channels_open(a.m, &id, NULL, 0, NULL));
    CHECK_EQ(0, a.wire_len);
    test_alloc_fail_at(1);
    CHECK_OK(frame_to(&b, 0, "\1\0\3\0\0\0\0", 7)); // one more than there is memory for
    SAID(&b, "");
    CHECK_OK(hand(&a, "\0\0\0\5\5\0\1\0\1", 9)); // and the link lives
    b.idle = true;
    test_alloc_fail_at(1);
    CHECK_ERR(NETIO_ENOMEM, frame_to(&b, 1, "kept", 4)); // a hole in a stream is the end
    CHECK_ERR(NETIO_ENOMEM, channels_send(b.m, 1, "x", 1));
    stop_pair(&a, &b);
    start(&a, CHANNELS_BARE, false, 0, 0);
    test_alloc_fail_at(1);
    CHECK_ERR(NETIO_ENOMEM, channels_add(a.m, 1, NULL));
    stop(&a);
}

//================================================================================================
// Without control, and as text
//================================================================================================

TEST(channels, bare_frames_are_messages)
{
    start(&a, CHANNELS_BARE, true, 0, 0);
    start(&b, CHANNELS_BARE, false, 0, 0);
    for (uint16_t id = 0; id < 3; id++) {
        CHECK_OK(channels_add(a.m, id, NULL));
        CHECK_OK(channels_add(b.m, id, NULL));
    }
    CHECK_EQ(3, channels_send(a.m, 1, "one", 3));
    CHECK_EQ(3, channels_send(a.m, 2, "two", 3));
    CHECK_EQ(4, channels_send(a.m, 0, "zero", 4)); // a channel like the others
    CHECK_EQ(0, channels_send(a.m, 1, "", 0));
    CHECK_EQ(5, channels_send(a.m, 1, "three", 5));
    CHECK_MEM("\0\1\0\3one\0\2\0\3two\0\0\0\4zero\0\1\0\0\0\1\0\5three", a.wire, a.wire_len);
    b.idle = true;
    exchange(&a, &b);
    SAID(&b, "data 1 3\ndata 2 3\ndata 0 4\ndata 1 0\ndata 1 5\n");
    read_all(&b, 1);
    SAID(&b, "read 1 one\nread 1 \nread 1 three\n");
    read_all(&b, 2);
    read_all(&b, 0);
    SAID(&b, "read 2 two\nread 0 zero\n");
    CHECK_EQ(0, b.wire_len);
    stop_pair(&a, &b);
}

TEST(channels, bare_queues_hold_ten_and_say_so)
{
    start(&b, CHANNELS_BARE, false, 0, 0);
    CHECK_OK(channels_add(b.m, 1, NULL));
    CHECK_OK(channels_add(b.m, 2, NULL));
    b.idle = true;
    for (int i = 0; i < 12; i++) CHECK_OK(frame_to(&b, 1, &"abcdefghijkl"[i], 1));
    CHECK_EQ(2, channels_get_stats(b.m).full);
    b.log[b.log_len = 0] = 0;
    b.idle = false;
    CHECK_OK(frame_to(&b, 2, "flows", 5));
    SAID(&b, "data 2 5\nread 2 flows\n");
    CHECK_OK(channels_drop(b.m, 1, 1));
    CHECK_OK(frame_to(&b, 1, "m", 1)); // a place is free
    SAID(&b, "data 1 1\nread 1 b\nread 1 c\nread 1 d\nread 1 e\nread 1 f\nread 1 g\nread 1 h\n"
             "read 1 i\nread 1 j\nread 1 m\n");
    stop(&b);
}

TEST(channels, bare_frames_of_no_channel_are_counted)
{
    start(&b, CHANNELS_BARE, false, 0, 0);
    CHECK_OK(channels_add(b.m, 1, NULL));
    CHECK_OK(frame_to(&b, 2, "lost", 4));
    CHECK_OK(frame_to(&b, 0, "\4\0\1", 3)); // no control here
    SAID(&b, "");
    CHECK_EQ(2, channels_get_stats(b.m).unknown);
    CHECK_OK(channels_close(b.m, 1, 0));
    CHECK_OK(frame_to(&b, 1, "lost", 4));
    CHECK_EQ(3, channels_get_stats(b.m).unknown);
    stop(&b);
}

TEST(channels, a_message_has_a_longest_length)
{
    start(&a, CHANNELS_BARE, true, 0, 0);
    start(&b, CHANNELS_BARE, false, 0, 0);
    CHECK_OK(channels_add(a.m, 65535, NULL));
    CHECK_OK(channels_add(b.m, 65535, NULL));
    test_fill(bulk, sizeof bulk, 3);
    CHECK_ERR(NETIO_EMSGSIZE, channels_send(a.m, 65535, bulk, 65536));
    CHECK_EQ(65535, channels_send(a.m, 65535, bulk, 65535));
    CHECK_EQ(65539, a.wire_len);
    b.idle = true;
    exchange(&a, &b);
    SAID(&b, "data 65535 65535\n");
    CHECK_MEM(bulk, channels_front(b.m, 65535).data, 65535);
    CHECK_OK(channels_drop(b.m, 65535, 65535));
    stop_pair(&a, &b);
}

TEST(channels, lines_are_channels)
{
    static const struct {
        const char *line, *says;
        unsigned bad, unknown;
    } cases[] = {
        {"0:a:b\n", "data 0 3\nread 0 a:b\n", 0, 0},
        {"0:\n", "data 0 0\nread 0 \n", 0, 0},
        {"65535:x\r\n", "data 65535 1\nread 65535 x\n", 0, 0},
        {"007:x\n", "data 7 1\nread 7 x\n", 0, 0},
        {"8:x\n", "", 0, 1},
        {"no colon\n", "", 1, 0},
        {"12\n", "", 1, 0},
        {"\n", "", 1, 0},
        {":x\n", "", 1, 0},
        {"-1:x\n", "", 1, 0},
        {"+1:x\n", "", 1, 0},
        {" 0:x\n", "", 1, 0},
        {"0 :x\n", "", 1, 0},
        {"0x0:x\n", "", 1, 0},
        {"65536:x\n", "", 1, 0},
        {"4294967296:x\n", "", 1, 0},
        {"99999999999999999999999999:x\n", "", 1, 0},
        {"a:x\n0:y\nb:z\n", "data 0 1\nread 0 y\n", 2, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start(&b, CHANNELS_TEXT, false, 0, 0);
        CHECK_OK(channels_add(b.m, 0, NULL));
        CHECK_OK(channels_add(b.m, 7, NULL));
        CHECK_OK(channels_add(b.m, 65535, NULL));
        CHECK_OK(hand(&b, cases[i].line, strlen(cases[i].line)));
        SAID(&b, cases[i].says);
        CHECK_EQ(cases[i].bad, channels_get_stats(b.m).bad_lines);
        CHECK_EQ(cases[i].unknown, channels_get_stats(b.m).unknown);
        stop(&b);
    }
}

TEST(channels, lines_have_a_longest_length_and_go_on_behind_it)
{
    start(&a, CHANNELS_TEXT, true, 0, 0);
    start(&b, CHANNELS_TEXT, false, 0, 0);
    CHECK_OK(channels_add(a.m, 65535, NULL));
    CHECK_OK(channels_add(b.m, 65535, NULL));
    memset(bulk, 'x', sizeof bulk);
    CHECK_ERR(NETIO_EMSGSIZE, channels_send(a.m, 65535, bulk, 65536));
    CHECK_ERR(NETIO_EINVAL, channels_send(a.m, 65535, "two\nlines", 9));
    CHECK_EQ(65535, channels_send(a.m, 65535, bulk, 65535));
    exchange(&a, &b);
    SAID(&b, "data 65535 65535\n");
    memcpy(bulk, "65535:", 6);
    bulk[6 + 65536] = '\n';
    CHECK_OK(hand(&b, bulk, 6 + 65536 + 1)); // left out by the framing
    memcpy(bulk, "0:", 2);
    bulk[2 + 65536] = '\n';
    CHECK_OK(hand(&b, bulk, 2 + 65536 + 1)); // here
    CHECK_OK(hand(&b, "65535:next\n", 11));
    SAID(&b, "data 65535 4\nread 65535 next\n");
    CHECK_EQ(1, netio_decoder_skipped(&b.d));
    CHECK_EQ(1, channels_get_stats(b.m).bad_lines);
    stop_pair(&a, &b);
}

//================================================================================================
// Cuts, and chance
//================================================================================================

// A conversation of one side: its bytes, for whoever listens.
static size_t conversation(uint8_t *out, size_t cap)
{
    uint16_t id = 0;
    start(&a, CHANNELS_CREDIT, true, 300, 0);
    start(&b, CHANNELS_CREDIT, false, 300, 0);
    for (int i = 0; i < 3; i++) CHECK_OK(channels_open(a.m, &id, "label", (size_t)i + 3, NULL));
    size_t len = a.wire_len;
    memcpy(out, a.wire, len);
    pass(&a, &b);
    pass(&b, &a);
    CHECK_EQ(5, channels_send(a.m, 1, "hello", 5));
    CHECK_EQ(30, channels_send(a.m, 3, bulk, 30));
    CHECK_OK(channels_ping(a.m));
    CHECK_EQ(3, channels_send(a.m, 1, "bye", 3));
    CHECK_OK(channels_end(a.m, 1));
    CHECK_OK(channels_close(a.m, 5, NETIO_ETIMEDOUT));
    CHECK_EQ(270, channels_send(a.m, 3, bulk, 1000));
    CHECK(len + a.wire_len <= cap);
    memcpy(out + len, a.wire, a.wire_len);
    len += a.wire_len;
    stop_pair(&a, &b);
    return len;
}

TEST(channels, a_cut_changes_nothing)
{
    static uint8_t bytes[2000];
    static char whole[sizeof a.log];
    memset(bulk, 'b', 1000);
    size_t len = conversation(bytes, sizeof bytes), frames = 0, out = 0;
    for (size_t cut = 0; cut <= len + 1; cut++) { // whole, in two, byte by byte
        start(&b, CHANNELS_CREDIT, false, 300, 0);
        if (cut == 0) {
            CHECK_OK(hand(&b, bytes, len));
            memcpy(whole, b.log, sizeof whole);
            frames = b.frames;
            out = b.wire_len;
        } else if (cut <= len) {
            CHECK_OK(hand(&b, bytes, cut));
            if (cut < len) CHECK_OK(hand(&b, bytes + cut, len - cut));
        } else {
            for (size_t i = 0; i < len; i++) CHECK_OK(hand(&b, bytes + i, 1));
        }
        CHECK_STR(whole, b.log);
        CHECK_EQ(frames, b.frames);
        CHECK_EQ(out, b.wire_len);
        stop(&b);
    }
    CHECK(strstr(whole, "read 1 hello") && strstr(whole, "closed 5 ETIMEDOUT"));
}

// The model: what each end sent and got in each channel. Byte i of a stream follows from its key.
typedef struct stream {
    uint32_t key;
    size_t sent, got;
    bool ended;
} stream;

typedef struct room {
    bool known[2], offered[2], reset;
    stream flow[2]; // by who sends
} room;

enum { AT_ONCE = 9, WINDOW = 700 };
static side ends[2];
static room rooms[65536];
static uint16_t live[2][2 * AT_ONCE];
static size_t live_count[2];
static uint32_t state;
static long opened, resets, moved;

static uint32_t chance(uint32_t below) { return test_random(&state) % below; }

static uint8_t byte_of(const stream *s, size_t i)
{
    return (uint8_t)((s->key + i) * 2654435761u >> 24);
}

static void know(int who, uint16_t id)
{
    CHECK(live_count[who] < 2 * AT_ONCE);
    live[who][live_count[who]++] = id;
    rooms[id].known[who] = true;
}

static void forget(int who, uint16_t id)
{
    size_t i = 0;
    while (live[who][i] != id) i++;
    live[who][i] = live[who][--live_count[who]];
    rooms[id].known[who] = rooms[id].offered[who] = false;
}

static void do_open(int who)
{
    uint16_t id = 0;
    int err = channels_open(ends[who].m, &id, "r", 1, NULL);
    if (err < 0) CHECK_ERR(NETIO_EBUSY, err);
    if (err < 0) return;
    CHECK(!rooms[id].known[0] && !rooms[id].known[1]);
    memset(&rooms[id], 0, sizeof rooms[id]);
    for (int i = 0; i < 2; i++) rooms[id].flow[i].key = test_random(&state);
    know(who, id);
    opened++;
}

static void do_send(int who, uint16_t id)
{
    uint8_t data[1500];
    stream *s = &rooms[id].flow[who];
    size_t len = 1 + chance(sizeof data);
    for (size_t i = 0; i < len; i++) data[i] = byte_of(s, s->sent + i);
    ends[who].hurt = chance(10) == 0;
    ends[who].emit_err = NETIO_ENOBUFS;
    ptrdiff_t n = channels_send(ends[who].m, id, data, len);
    ends[who].hurt = false;
    if (s->ended) CHECK_ERR(NETIO_EPIPE, n);
    else CHECK(n == NETIO_ENOBUFS || (n > 0 && (size_t)n <= len));
    if (n > 0) s->sent += (size_t)n;
    CHECK(s->sent - s->got <= WINDOW || rooms[id].reset);
}

static void do_read(int who, uint16_t id)
{
    stream *s = &rooms[id].flow[!who];
    netio_buf piece = channels_front(ends[who].m, id);
    size_t n = piece.len > 1 ? 1 + chance((uint32_t)piece.len) : piece.len;
    for (size_t i = 0; i < n; i++)
        CHECK_EQ(byte_of(s, s->got + i), ((const uint8_t *)piece.data)[i]);
    CHECK_OK(channels_drop(ends[who].m, id, n));
    s->got += n;
    moved += (long)n;
    CHECK(s->got <= s->sent);
    if (channels_ended(ends[who].m, id)) CHECK(s->ended && s->got == s->sent);
}

static void do_end(int who, uint16_t id)
{
    rooms[id].flow[who].ended = true;
    CHECK_OK(channels_end(ends[who].m, id));
}

static void do_close(int who, uint16_t id, bool clean_only)
{
    bool clean = rooms[id].flow[who].ended && channels_ended(ends[who].m, id);
    if (!clean && clean_only) return;
    if (!clean) resets++;
    if (!clean) rooms[id].reset = true;
    CHECK_OK(channels_close(ends[who].m, id, clean ? 0 : NETIO_EPIPE));
    forget(who, id);
}

static void random_event(int who, const channels_event *e)
{
    room *r = &rooms[e->id];
    switch (e->type) {
    case CHANNELS_OPEN:
        know(who, e->id);
        r->offered[who] = true;
        break;
    case CHANNELS_CLOSED:
        CHECK(r->reset || e->err == NETIO_EBUSY);
        r->reset = true;
        forget(who, e->id);
        break;
    case CHANNELS_DATA:
        if (chance(2)) do_read(who, e->id);
        break;
    default: break;
    }
}

// Some of what an end sent arrives at the other.
static void do_pass(int who, size_t most)
{
    side *from = &ends[who], *to = &ends[!who];
    size_t len = from->wire_len && most ? 1 + chance((uint32_t)from->wire_len) : from->wire_len;
    netio_frame frame;
    int r;
    if (most && len > most) len = most;
    if (len == 0) return;
    uint8_t *piece = (uint8_t *)malloc(len);
    memcpy(piece, from->wire, len);
    from->wire_len -= len;
    memmove(from->wire, from->wire + len, from->wire_len);
    CHECK_OK(netio_decoder_feed(&to->d, piece, len));
    while ((r = netio_decoder_next(&to->d, &frame)) > 0) {
        channels_event e = {0};
        CHECK_OK(channels_input(to->m, &frame, &e));
        random_event(!who, &e);
        CHECK_OK(channels_keep(to->m));
    }
    CHECK_OK(r);
    free(piece);
}

static void random_step(void)
{
    int who = (int)chance(2);
    uint32_t what = chance(100);
    uint16_t id = live_count[who] ? live[who][chance((uint32_t)live_count[who])] : 0;
    if (what < 30) do_pass(who, 1 + chance(3000));
    else if (what < 36) do_open(who);
    else if (id == 0) return;
    else if (rooms[id].offered[who]) {
        rooms[id].offered[who] = false;
        if (what < 45) do_close(who, id, false);
        else CHECK_OK(channels_accept(ends[who].m, id));
    } else if (what < 60) do_send(who, id);
    else if (what < 90) do_read(who, id);
    else if (what < 94) do_end(who, id);
    else do_close(who, id, what < 99);
}

// All that is under way comes to its end.
static void settle(void)
{
    for (int round = 0; live_count[0] || live_count[1] || ends[0].wire_len || ends[1].wire_len;
         round++) {
        CHECK(round < 1000);
        for (int who = 0; who < 2; who++) {
            for (size_t i = live_count[who]; i-- > 0;) {
                uint16_t id = live[who][i];
                if (rooms[id].offered[who]) CHECK_OK(channels_accept(ends[who].m, id));
                rooms[id].offered[who] = false;
                do_end(who, id);
                while (channels_front(ends[who].m, id).data) do_read(who, id);
                do_close(who, id, true);
            }
            do_pass(who, 0);
        }
    }
}

TEST(channels, two_ends_at_random_agree_with_the_model)
{
    uint32_t seeds = test_soak() ? 2000 : 20;
    opened = resets = moved = 0;
    for (uint32_t seed = 1; seed <= seeds; seed++) {
        state = seed;
        memset(rooms, 0, sizeof rooms);
        live_count[0] = live_count[1] = 0;
        for (int i = 0; i < 2; i++) start(&ends[i], CHANNELS_CREDIT, i == 0, WINDOW, AT_ONCE);
        for (int i = 0; i < 20000; i++) random_step();
        settle();
        for (int i = 0; i < 2; i++) CHECK_EQ(0, channels_get_stats(ends[i].m).open);
        for (int i = 0; i < 2; i++) stop(&ends[i]);
    }
    CHECK(opened > 300 * (long)seeds && resets > 20 * (long)seeds && moved > 1000 * opened / 10);
}

TEST_MAIN("channels", T(channels, both_ends_open_and_each_channel_is_in_order),
          T(channels, an_unread_channel_takes_one_window_and_stalls_no_other),
          T(channels, credit_is_exact_to_the_byte),
          T(channels, many_small_frames_cost_no_more_than_a_large_one),
          T(channels, what_was_read_in_place_is_not_copied),
          T(channels, reading_goes_on_across_pieces), T(channels, nothing_flows_before_accept),
          T(channels, one_direction_ends_and_the_other_goes_on),
          T(channels, the_end_is_reached_when_all_was_read),
          T(channels, a_clean_end_is_told_to_nobody),
          T(channels, what_waits_is_read_though_the_peer_is_done),
          T(channels, closing_early_gives_the_peer_the_reason),
          T(channels, unread_bytes_make_no_clean_end), T(channels, both_may_close_at_once),
          T(channels, a_refusal_has_its_reason), T(channels, given_up_before_the_answer),
          T(channels, a_number_is_used_again_only_when_both_have_closed),
          T(channels, no_more_than_max_at_once), T(channels, a_ping_is_answered),
          T(channels, a_peer_that_breaks_a_rule_is_told_apart),
          T(channels, data_beyond_its_credit_ends_it_at_the_byte),
          T(channels, labels_have_a_longest_length), T(channels, what_is_legal_in_each_state),
          T(channels, refusals_above_max_are_forgotten_one_for_one),
          T(channels, calls_that_make_no_sense_are_refused),
          T(channels, a_link_that_is_full_takes_what_it_can),
          T(channels, running_out_of_memory_loses_nothing_unsaid),
          T(channels, bare_frames_are_messages), T(channels, bare_queues_hold_ten_and_say_so),
          T(channels, bare_frames_of_no_channel_are_counted),
          T(channels, a_message_has_a_longest_length), T(channels, lines_are_channels),
          T(channels, lines_have_a_longest_length_and_go_on_behind_it),
          T(channels, a_cut_changes_nothing), T(channels, two_ends_at_random_agree_with_the_model))
