// BACKENDS: all memory
//
// Frames on connections: formats in every cut, order and back-pressure, changes of framing in
// mid-stream, errors, WebSocket's own answers, filters; PROXY headers of listeners, and dialing
// through proxies.
#include "engine.h"

//================================================================================================
// Tools
//================================================================================================

// What came to an end as frames.
typedef struct reader {
    char text[2048]; // payloads, each with '|' behind it
    size_t len;
    int frames;
    uint32_t crc; // over all payloads and their lengths
    uint64_t bytes;
    netio_frame last; // its pointers are not valid any more
    int code;         // WebSocket: of the last close frame
    const char *broken;
    void (*on)(end *e, struct reader *r, const netio_frame *f);
    int result; // of what `on` did
} reader;

static void reader_frame(netio_conn c, const netio_frame *f)
{
    end *e = end_of(c);
    reader *r = (reader *)e->arg;
    size_t room = sizeof r->text - 1 - r->len, n = f->len < room ? f->len : room;
    uint32_t len = (uint32_t)f->len;
    if (test_calling) r->broken = "called back from inside a call";
    if (!e->opened || e->closed) r->broken = "a frame before on_open or after on_close";
    if (!netio_conn_alive(c)) r->broken = "a frame though it is closing";
    if (n) memcpy(r->text + r->len, f->data, n);
    r->len += n;
    if (r->len + 1 < sizeof r->text) r->text[r->len++] = '|';
    r->text[r->len] = 0;
    r->frames++;
    r->bytes += f->len;
    r->crc = netio_crc32(netio_crc32(r->crc, &len, sizeof len), f->data, f->len);
    r->last = *f;
    if (f->type == NETIO_WS_CLOSE) r->code = netio_ws_close_code(f->data, f->len);
    if (r->on) r->on(e, r, f);
}

static netio_handler framed_all; // end_all with frames

static netio_framing no_framing(void)
{
    netio_framing none;
    memset(&none, 0, sizeof none);
    return none;
}

// A duo whose ends have readers; `b`, who accepted, has framing.
typedef struct talk {
    duo d;
    reader a, b;
} talk;

static void talk_init(talk *t, netio_framing framing)
{
    memset(t, 0, sizeof *t);
    framed_all = end_all;
    framed_all.on_frame = reader_frame;
    duo_init(&t->d);
    t->d.a.arg = &t->a;
    t->d.b.arg = &t->b;
    t->d.listen.conn.framing = framing;
}

static void talk_open(talk *t) { duo_open(&t->d, &framed_all, &framed_all); }

static void talk_start(talk *t, netio_framing framing)
{
    talk_init(t, framing);
    talk_open(t);
}

static void talk_close(talk *t)
{
    duo_close(&t->d);
    if (t->a.broken) test_fail(__FILE__, __LINE__, "%s", t->a.broken);
    if (t->b.broken) test_fail(__FILE__, __LINE__, "%s", t->b.broken);
}

static void say_bytes(talk *t, const void *data, size_t len)
{
    CHECK_OK(CALL(netio_conn_write(t->d.a.c, data, len)));
}

static void say(talk *t, const char *text) { say_bytes(t, text, strlen(text)); }

static uint64_t bytes_in(netio_conn c)
{
    netio_stats stats;
    return netio_conn_stats(c, &stats) == 0 ? stats.bytes_in : 0;
}

static void link_pieces(size_t piece_max)
{
    netio_link link;
    memset(&link, 0, sizeof link);
    link.piece_max = piece_max;
    test_link(&link);
}

// A format of the tests' own: a byte that counts the payload, at most 254.
static ptrdiff_t tick_parse(const netio_framing *framing, const uint8_t *data, size_t len,
                            netio_frame *out, size_t *need)
{
    size_t size = (size_t)data[0] + 1;
    (void)framing;
    if (data[0] == 255) return NETIO_EPROTO;
    if (len < size) {
        *need = size;
        return 0;
    }
    out->data = data + 1;
    out->len = size - 1;
    return (ptrdiff_t)size;
}

static int tick_wrap(netio_envelope *out, const netio_framing *framing, const netio_frame *frame)
{
    (void)framing;
    out->head_len = 1;
    out->tail_len = 0;
    out->head[0] = (uint8_t)frame->len;
    return frame->len < 255 ? 0 : (int)NETIO_EMSGSIZE;
}

static const netio_format_ops tick_ops = {tick_parse, tick_wrap};

#define HEAD "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

enum { FORMATS = 13 };

static const char *format_names[FORMATS] = {"line",   "delimiter", "fixed",    "length", "magic",
                                            "varint", "netstring", "chunked",  "cobs",   "slip",
                                            "head",   "custom",    "websocket"};

static netio_framing format(int i)
{
    netio_framing f = no_framing();
    switch (i) {
    case 0: return netio_framing_line(0);
    case 1: return netio_framing_delimiter("--", 2, 0);
    case 2: return netio_framing_fixed(7);
    case 3: return netio_framing_length(2, 0);
    case 4:
        f = netio_framing_length(4, 0);
        f.header = 12;
        f.offset = 2;
        f.magic_len = 2;
        f.magic[0] = 'M', f.magic[1] = 'g';
        f.check = NETIO_CHECK_CRC32C;
        f.check_offset = 6;
        f.little = true;
        return f;
    case 5: return netio_framing_varint(0);
    case 6: return netio_framing_netstring(0);
    case 7: return netio_framing_chunked(0);
    case 8: return netio_framing_cobs(0);
    case 9: return netio_framing_slip(0);
    case 10: return netio_framing_http_head(0);
    case 11: return netio_framing_custom(&tick_ops, NULL, 0);
    default: return netio_framing_websocket(false, 0);
    }
}

// The side that sends to a reader with format(i).
static netio_framing format_of_sender(int i)
{
    return i == 12 ? netio_framing_websocket(true, 0) : format(i);
}

// Payload number `n` for it.
static size_t format_payload(int i, int n, char *out)
{
    size_t len = (size_t)(i == 2 ? 7 : 1 + n * 13 % 200);
    if (i == 10) {
        memcpy(out, HEAD, sizeof HEAD - 1);
        return sizeof HEAD - 1;
    }
    for (size_t k = 0; k < len; k++) out[k] = (char)('a' + (k + (size_t)n) % 26);
    return len;
}

//================================================================================================
// Frames in
//================================================================================================

// Three frames, cut in two at every place: the first part has arrived before the second is written.
TEST(conn_frame, every_format_in_every_cut)
{
    for (int i = 0; i < FORMATS; i++) {
        unsigned char wire[512];
        char payload[256], want[512];
        size_t len = 0, want_len = 0;
        netio_framing sender = format_of_sender(i);
        talk t;
        for (int n = 0; n < 3; n++) {
            netio_frame f;
            memset(&f, 0, sizeof f);
            f.data = (const uint8_t *)payload;
            f.len = format_payload(i, n, payload);
            ptrdiff_t size = netio_encode_into(wire + len, sizeof wire - len, &sender, &f);
            CHECK(size > 0);
            len += (size_t)size;
            memcpy(want + want_len, payload, f.len);
            want_len += f.len;
            want[want_len++] = '|';
        }
        want[want_len] = 0;
        talk_start(&t, format(i));
        for (size_t cut = 1; cut < len; cut++) {
            uint64_t before = bytes_in(t.d.b.c);
            int frames = t.b.frames;
            t.b.len = 0;
            say_bytes(&t, wire, cut);
            RUN_UNTIL(t.d.loop, t.d.b.closed || bytes_in(t.d.b.c) == before + cut);
            CHECK(t.b.frames < frames + 3 || cut == len);
            say_bytes(&t, wire + cut, len - cut);
            RUN_UNTIL(t.d.loop, t.d.b.closed || t.b.frames == frames + 3);
            if (strcmp(want, t.b.text) != 0)
                printf("    %s cut at %d\n", format_names[i], (int)cut);
            CHECK_STR(want, t.b.text);
        }
        CHECK_EQ(0, t.d.b.got); // on_data had none of it
        talk_close(&t);
    }
}

TEST(conn_frame, every_format_byte_by_byte)
{
    if (!test_in_memory()) SKIP("pieces are cut by the network in memory");
    for (int i = 0; i < FORMATS; i++) {
        talk t;
        char payload[256];
        uint32_t crc = 0;
        talk_init(&t, format(i));
        t.d.dial.conn.framing = format_of_sender(i);
        talk_open(&t);
        link_pieces(i % 2 ? 1 : 3);
        for (int n = 0; n < 20; n++) {
            uint32_t len = (uint32_t)format_payload(i, n, payload);
            crc = netio_crc32(netio_crc32(crc, &len, sizeof len), payload, len);
            CHECK_OK(CALL(netio_conn_send(t.d.a.c, payload, len)));
        }
        RUN_UNTIL(t.d.loop, t.d.b.closed || t.b.frames == 20);
        CHECK_EQ(crc, t.b.crc);
        if (i == 7) CHECK_OK(CALL(netio_conn_send(t.d.a.c, NULL, 0))); // a body has an end
        CHECK_OK(CALL(netio_conn_shutdown(t.d.a.c)));
        RUN_UNTIL(t.d.loop, t.d.b.closed || t.d.b.ended);
        if (!t.d.b.ended) printf("    %s\n", format_names[i]);
        CHECK_EQ(1, t.d.b.ended);
        talk_close(&t);
    }
}

TEST(conn_frame, counters_tell_frames_in_and_out)
{
    talk t;
    netio_stats stats;
    talk_init(&t, netio_framing_length(2, 0));
    t.d.dial.conn.framing = netio_framing_length(2, 0);
    talk_open(&t);
    for (int i = 0; i < 5; i++) CHECK_OK(CALL(netio_conn_send(t.d.a.c, "x", 1)));
    CHECK_OK(CALL(netio_conn_send(t.d.b.c, "y", 1)));
    RUN_UNTIL(t.d.loop, t.b.frames == 5 && t.a.frames == 1);
    CHECK_OK(netio_conn_stats(t.d.a.c, &stats));
    CHECK_EQ(5, stats.frames_out);
    CHECK_EQ(1, stats.frames_in);
    CHECK_OK(netio_conn_stats(t.d.b.c, &stats));
    CHECK_EQ(1, stats.frames_out);
    CHECK_EQ(5, stats.frames_in);
    talk_close(&t);
    CHECK_EQ(5, t.d.b.stats.frames_in); // also in on_close
}

static void pause_each(end *e, reader *r, const netio_frame *f)
{
    (void)r, (void)f;
    CHECK_OK(CALL(netio_conn_pause(e->c)));
}

TEST(conn_frame, pause_keeps_what_follows_and_resume_hands_it_out)
{
    talk t;
    talk_init(&t, netio_framing_line(0));
    t.b.on = pause_each;
    talk_open(&t);
    say(&t, "one\ntwo\nthree\nfour");
    for (int i = 1; i <= 3; i++) {
        RUN_UNTIL(t.d.loop, t.b.frames == i);
        test_run_for(t.d.loop, 20);
        CHECK_EQ(i, t.b.frames);
        CHECK_OK(CALL(netio_conn_resume(t.d.b.c)));
        CHECK_EQ(i, t.b.frames); // not from inside the call
    }
    test_run_for(t.d.loop, 20);
    CHECK_STR("one|two|three|", t.b.text);
    say(&t, "teen\n");
    RUN_UNTIL(t.d.loop, t.b.frames == 4);
    CHECK_OK(CALL(netio_conn_shutdown(t.d.a.c)));
    test_run_for(t.d.loop, 20);
    CHECK_EQ(0, t.d.b.ended); // paused: no end of stream
    CHECK_OK(CALL(netio_conn_resume(t.d.b.c)));
    RUN_UNTIL(t.d.loop, t.d.b.ended);
    CHECK_STR("one|two|three|fourteen|", t.b.text);
    talk_close(&t);
}

// All came with the end of the stream: what waited is handed out before on_eof.
TEST(conn_frame, paused_frames_come_before_the_end)
{
    talk t;
    talk_init(&t, netio_framing_line(0));
    t.b.on = pause_each;
    talk_open(&t);
    say(&t, "one\ntwo\ntail");
    CHECK_OK(CALL(netio_conn_shutdown(t.d.a.c)));
    for (int i = 1; i <= 3; i++) {
        RUN_UNTIL(t.d.loop, t.b.frames == i);
        test_run_for(t.d.loop, 20);
        CHECK_EQ(i, t.b.frames);
        CHECK_EQ(0, t.d.b.ended);
        CHECK_OK(CALL(netio_conn_resume(t.d.b.c)));
    }
    RUN_UNTIL(t.d.loop, t.d.b.ended);
    CHECK_STR("one|two|tail|", t.b.text);
    talk_close(&t);
}

static char answer[1024];
static size_t highest;

static void answer_each(end *e, reader *r, const netio_frame *f)
{
    (void)f;
    if (netio_conn_congested(e->c)) r->broken = "a frame while the queue is high";
    int err = CALL(netio_conn_send(e->c, answer, sizeof answer));
    if (err < 0) r->result = err;
    if (netio_conn_pending(e->c) > highest) highest = netio_conn_pending(e->c);
}

static void answers_run(netio_filter filter)
{
    enum { COUNT = 100000 };
    talk t;
    static char requests[2 * COUNT];
    memset(requests, '\n', sizeof requests);
    for (int i = 0; i < COUNT; i++) requests[2 * i] = 'q';
    highest = 0;
    talk_init(&t, netio_framing_line(0));
    t.b.on = answer_each;
    t.d.dial.conn.read_always = true;
    t.d.dial.conn.filter = t.d.listen.conn.filter = filter;
    talk_open(&t);
    memset(answer, 'A', sizeof answer);
    say_bytes(&t, requests, sizeof requests);
    RUN_UNTIL(t.d.loop, t.d.b.closed || t.d.a.got == (uint64_t)COUNT * (sizeof answer + 1));
    CHECK_EQ(COUNT, t.b.frames);
    CHECK_OK(t.b.result);
    CHECK_BETWEEN(1, 64 * 1024 + 2 * sizeof answer, highest);
    talk_close(&t);
}

// 100,000 tiny requests at once, each answered with 1 KiB: the queue stops them at its high mark.
TEST(conn_frame, answers_never_overflow_the_queue)
{
    netio_filter none;
    memset(&none, 0, sizeof none);
    answers_run(none);
}

TEST(conn_frame, high_queue_stops_frames_until_it_drained)
{
    talk t;
    highest = 0;
    memset(answer, 'B', sizeof answer);
    talk_init(&t, netio_framing_line(0));
    t.b.on = answer_each;
    t.d.small = 16384;
    t.d.listen.conn.high_mark = 4096;
    talk_open(&t);
    CHECK_OK(CALL(netio_conn_pause(t.d.a.c))); // takes no answers
    for (int i = 0; i < 4000; i++) say(&t, "?\n");
    RUN_UNTIL(t.d.loop, netio_conn_congested(t.d.b.c));
    test_run_for(t.d.loop, 50);
    CHECK(netio_conn_congested(t.d.b.c));
    CHECK_BETWEEN(1, 3999, t.b.frames);
    CHECK_OK(CALL(netio_conn_resume(t.d.a.c)));
    RUN_UNTIL(t.d.loop, t.b.frames == 4000 && t.d.a.got == 4000 * (sizeof answer + 1));
    CHECK_OK(t.b.result);
    CHECK_BETWEEN(1, 4096 + 2 * sizeof answer, highest);
    CHECK(t.d.b.drained > 0);
    talk_close(&t);
}

static void close_each(end *e, reader *r, const netio_frame *f)
{
    (void)r, (void)f;
    CHECK_OK(CALL(netio_conn_send(e->c, "bye", 3)));
    CHECK_OK(CALL(netio_conn_close(e->c)));
}

static void abort_each(end *e, reader *r, const netio_frame *f)
{
    (void)r, (void)f;
    CHECK_OK(CALL(netio_conn_abort(e->c)));
}

TEST(conn_frame, close_and_abort_end_the_frames)
{
    for (int how = 0; how < 2; how++) {
        talk t;
        talk_init(&t, netio_framing_line(0));
        t.b.on = how ? abort_each : close_each;
        talk_open(&t);
        say(&t, "one\ntwo\nthree\n");
        RUN_UNTIL(t.d.loop, end_lost(&t.d.a) || t.d.a.ended);
        if (!t.d.a.closed) CHECK_OK(CALL(netio_conn_close(t.d.a.c)));
        RUN_UNTIL(t.d.loop, t.d.b.closed);
        CHECK_EQ(1, t.b.frames);
        CHECK_EQ(how ? 0 : 4, t.d.a.got);
        CHECK_ERR(how ? NETIO_ECONNABORTED : 0, t.d.b.err);
        talk_close(&t);
    }
}

//================================================================================================
// Change of framing
//================================================================================================

// "LEN" switches to lengths, "LINE" to lines, "NONE" to bytes.
static void obey(end *e, reader *r, const netio_frame *f)
{
    if (f->len == 3 && memcmp(f->data, "LEN", 3) == 0)
        r->result = CALL(netio_conn_set_framing(e->c, netio_framing_length(1, 0)));
    if (f->len == 4 && memcmp(f->data, "LINE", 4) == 0)
        r->result = CALL(netio_conn_set_framing(e->c, netio_framing_line(0)));
    if (f->len == 4 && memcmp(f->data, "NONE", 4) == 0)
        r->result = CALL(netio_conn_set_framing(e->c, no_framing()));
}

// Bytes that are no frames end with 'L', which turns lines on behind it.
static void obey_bytes(end *e, int what, const void *data, size_t len)
{
    reader *r = (reader *)e->arg;
    const char *p = (const char *)data;
    if (what != DATA) return;
    const char *end_mark = (const char *)memchr(p, 'L', len);
    size_t n = end_mark ? (size_t)(end_mark - p) + 1 : len;
    memcpy(r->text + r->len, p, n);
    r->len += n;
    r->text[r->len] = 0;
    if (!end_mark) return;
    CHECK_OK(CALL(netio_conn_set_framing(e->c, netio_framing_line(0))));
    if (len > n) CHECK_OK(CALL(netio_conn_unread(e->c, len - n)));
}

TEST(conn_frame, change_rereads_what_was_received)
{
    static const char wire[] = "hi\nLEN\n\002ab\004LINEonce\nNONE\nraw bytes,Lagain\nmore\n";
    static const char want[] = "hi|LEN|ab|LINE|once|NONE|raw bytes,Lagain|more|";
    for (size_t cut = 0; cut < sizeof wire - 1; cut++) {
        talk t;
        talk_init(&t, netio_framing_line(0));
        t.b.on = obey;
        t.d.b.on = obey_bytes;
        talk_open(&t);
        if (cut) say_bytes(&t, wire, cut);
        RUN_UNTIL(t.d.loop, bytes_in(t.d.b.c) == cut);
        say_bytes(&t, wire + cut, sizeof wire - 1 - cut);
        RUN_UNTIL(t.d.loop, t.d.b.closed || strlen(t.b.text) >= strlen(want));
        CHECK_STR(want, t.b.text);
        CHECK_OK(t.b.result);
        talk_close(&t);
    }
}

// From outside of callbacks, with a part of a frame received.
TEST(conn_frame, change_from_outside_rereads_too)
{
    talk t;
    talk_start(&t, netio_framing_line(0));
    t.d.b.on = obey_bytes;
    say(&t, "half");
    RUN_UNTIL(t.d.loop, bytes_in(t.d.b.c) == 4);
    CHECK_OK(CALL(netio_conn_set_framing(t.d.b.c, netio_framing_fixed(2))));
    RUN_UNTIL(t.d.loop, t.b.frames == 2);
    CHECK_STR("ha|lf|", t.b.text);
    say(&t, "x");
    RUN_UNTIL(t.d.loop, bytes_in(t.d.b.c) == 5);
    CHECK_OK(CALL(netio_conn_set_framing(t.d.b.c, no_framing())));
    RUN_UNTIL(t.d.loop, t.d.b.got == 1);
    CHECK_STR("ha|lf|x", t.b.text);
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_set_framing(t.d.b.c, netio_framing_fixed(0))));
    talk_close(&t);
}

static void upgrade(end *e, reader *r, const netio_frame *f)
{
    netio_http_head head;
    char out[512];
    size_t len;
    if (r->frames != 1) return;
    CHECK_OK(netio_http_parse(&head, f->data, f->len));
    r->result = netio_ws_answer(out, sizeof out, &len, &head);
    CHECK_OK(CALL(netio_conn_write(e->c, out, len)));
    CHECK_OK(CALL(netio_conn_set_framing(e->c, netio_framing_websocket(false, 0))));
}

static char ws_key[25];

static void upgraded(end *e, reader *r, const netio_frame *f)
{
    netio_http_head head;
    if (r->frames != 1) return;
    CHECK_OK(netio_http_parse(&head, f->data, f->len));
    r->result = netio_ws_check(&head, ws_key);
    CHECK_OK(CALL(netio_conn_set_framing(e->c, netio_framing_websocket(true, 0))));
    CHECK_OK(CALL(netio_conn_send(e->c, "hello", 5)));
}

static void echo_ws(end *e, reader *r, const netio_frame *f)
{
    upgrade(e, r, f);
    if (r->frames > 1 && f->type == NETIO_WS_BINARY) CHECK_OK(CALL(netio_conn_send_frame(e->c, f)));
}

TEST(conn_frame, http_head_becomes_websocket)
{
    talk t;
    char request[512];
    talk_init(&t, netio_framing_http_head(0));
    t.d.dial.conn.framing = netio_framing_http_head(0);
    t.b.on = echo_ws;
    t.a.on = upgraded;
    talk_open(&t);
    ptrdiff_t n = netio_ws_request(request, sizeof request, "a", "/", ws_key);
    CHECK(n > 0);
    say_bytes(&t, request, (size_t)n);
    RUN_UNTIL(t.d.loop, t.a.frames == 2);
    CHECK_OK(t.a.result);
    CHECK_OK(t.b.result);
    CHECK_EQ(NETIO_WS_BINARY, t.a.last.type);
    CHECK_EQ(5, t.a.last.len);
    talk_close(&t);
}

//================================================================================================
// Ends and errors
//================================================================================================

TEST(conn_frame, last_line_needs_no_end)
{
    talk t;
    talk_start(&t, netio_framing_line(0));
    say(&t, "one\ntail");
    CHECK_OK(CALL(netio_conn_shutdown(t.d.a.c)));
    RUN_UNTIL(t.d.loop, t.d.b.ended);
    CHECK_STR("one|tail|", t.b.text);
    CHECK_OK(CALL(netio_conn_close(t.d.b.c)));
    RUN_UNTIL(t.d.loop, t.d.b.closed);
    CHECK_ERR(0, t.d.b.err);
    talk_close(&t);
}

// The last frame, at the end of the stream, may still change what nothing follows.
TEST(conn_frame, last_line_may_change_the_framing)
{
    static const char *const words[] = {"NONE", "LEN", "LINE"};
    for (size_t i = 0; i < 3; i++) {
        talk t;
        talk_init(&t, netio_framing_line(0));
        t.b.on = obey;
        talk_open(&t);
        say(&t, words[i]);
        CHECK_OK(CALL(netio_conn_shutdown(t.d.a.c)));
        RUN_UNTIL(t.d.loop, t.d.b.closed || t.d.b.ended);
        CHECK_EQ(1, t.d.b.ended);
        CHECK_EQ(1, t.b.frames);
        talk_close(&t);
    }
}

static unsigned char wire_seen[64];

static void see_wire(end *e, int what, const void *data, size_t len)
{
    if (what == DATA && e->got <= sizeof wire_seen) memcpy(wire_seen + e->got - len, data, len);
}

static void change_mind(end *e, reader *r, const netio_frame *f)
{
    (void)f;
    if (r->frames > 1) return;
    CHECK_OK(CALL(netio_conn_set_framing(e->c, no_framing())));
    CHECK_OK(CALL(netio_conn_send(e->c, "plain", 5)));
    CHECK_OK(CALL(netio_conn_set_framing(e->c, netio_framing_fixed(3))));
    CHECK_OK(CALL(netio_conn_send(e->c, "abc", 3)));
}

TEST(conn_frame, last_change_in_a_callback_counts)
{
    talk t;
    talk_init(&t, netio_framing_line(0));
    t.b.on = change_mind;
    t.d.a.on = see_wire;
    talk_open(&t);
    say(&t, "go\nabcdef");
    RUN_UNTIL(t.d.loop, t.b.frames == 3 && t.d.a.got == 8);
    CHECK_STR("go|abc|def|", t.b.text);
    CHECK_MEM("plainabc", wire_seen, 8);
    talk_close(&t);
}

TEST(conn_frame, end_inside_a_frame_is_told)
{
    talk t;
    talk_start(&t, netio_framing_length(2, 0));
    say_bytes(&t, "\0\003abc\0\005ab", 9);
    CHECK_OK(CALL(netio_conn_shutdown(t.d.a.c)));
    RUN_UNTIL(t.d.loop, t.d.b.closed);
    CHECK_STR("abc|", t.b.text);
    CHECK_EQ(0, t.d.b.ended);
    CHECK_ERR(NETIO_ETRUNCATED, t.d.b.err);
    CHECK_EQ(NETIO_STAGE_FRAME, t.d.b.error.stage);
    CHECK_EQ(5, t.d.b.error.offset);
    talk_close(&t);
}

// Good frames before it are handed out, the error says where it is and how large it claims to be.
TEST(conn_frame, bad_frames_end_the_connection_with_a_name)
{
    const struct {
        const char *name, *wire;
        size_t len;
        netio_framing framing;
        int err;
        uint64_t offset, size;
        const char *before;
    } rows[] = {
        {"length", "\0\002ab\xff\xff", 6, netio_framing_length(2, 100), NETIO_EMSGSIZE, 4, 65535,
         "ab|"},
        {"line", "ab\n0123456789abcdef", 19, netio_framing_line(8), NETIO_EMSGSIZE, 3, 9, "ab|"},
        {"netstring", "2:ab,3:abcd", 11, netio_framing_netstring(9), NETIO_EPROTO, 5, 0, "ab|"},
        {"netstring", "2:ab,99:", 8, netio_framing_netstring(9), NETIO_EMSGSIZE, 5, 99, "ab|"},
        {"chunked", "2\r\nab\r\nxyz", 10, netio_framing_chunked(0), NETIO_EPROTO, 7, 0, "ab|"},
        {"head", "GET / HTTP/1.1\n", 15, netio_framing_http_head(0), NETIO_EPROTO, 0, 0, ""},
        {"custom", "\001a\377", 3, netio_framing_custom(&tick_ops, NULL, 0), NETIO_EPROTO, 2, 0,
         "a|"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        talk t;
        netio_stats stats;
        talk_start(&t, rows[i].framing);
        say_bytes(&t, rows[i].wire, rows[i].len);
        RUN_UNTIL(t.d.loop, t.d.b.closed || t.d.a.ended);
        if (!t.d.a.closed) CHECK_OK(CALL(netio_conn_close(t.d.a.c)));
        RUN_UNTIL(t.d.loop, t.d.b.closed);
        if (t.d.b.err != rows[i].err || t.d.b.error.size != rows[i].size)
            printf("    row %d, %s\n", (int)i, rows[i].name);
        CHECK_STR(rows[i].before, t.b.text);
        CHECK_ERR(rows[i].err, t.d.b.err);
        CHECK_EQ(NETIO_STAGE_FRAME, t.d.b.error.stage);
        CHECK_EQ(rows[i].offset, t.d.b.error.offset);
        CHECK_EQ(rows[i].size, t.d.b.error.size);
        netio_loop_run_once(t.d.loop, 0);
        netio_loop_stats(t.d.loop, &stats);
        CHECK_EQ(rows[i].err == NETIO_EMSGSIZE, stats.limit_errors);
        CHECK_EQ(rows[i].err == NETIO_EPROTO, stats.protocol_errors);
        talk_close(&t);
    }
}

// What the handler does with a bad frame, in the row that is tried.
static void (*bad_act)(netio_conn c);
static int bad_calls, bad_err;
static netio_frame bad_seen;
static char bad_first;

static void answer_bad_frame(netio_conn c, const netio_frame *frame, int err)
{
    bad_calls++;
    bad_err = err;
    bad_seen = *frame;
    bad_first = frame->len ? (char)frame->data[0] : 0;
    CHECK_OK(CALL(netio_conn_write(c, "400\n", 4)));
    if (bad_act) bad_act(c);
    if (frame->len) CHECK_EQ(bad_first, (char)frame->data[0]); // lent until it returns
}

static void bad_close(netio_conn c) { CHECK_OK(CALL(netio_conn_close(c))); }

static void bad_abort(netio_conn c) { CHECK_OK(CALL(netio_conn_abort(c))); }

static void bad_change(netio_conn c) { CHECK_OK(CALL(netio_conn_set_framing(c, no_framing()))); }

TEST(conn_frame, bad_frames_can_be_answered)
{
    const struct {
        const char *wire;
        bool shut; // the sender's end follows
        void (*act)(netio_conn c);
        netio_framing framing;
        int err;
        uint64_t offset;
        char first;
    } rows[] = {
        {"ab\n0123456789abcdef", false, NULL, netio_framing_line(8), NETIO_EMSGSIZE, 3, '0'},
        {"2:ab,3:abcd", false, NULL, netio_framing_netstring(9), NETIO_EPROTO, 5, '3'},
        {"2:ab,3:abcd", false, bad_change, netio_framing_netstring(9), NETIO_EPROTO, 5, '3'},
        {"2:ab,3:abcd", false, bad_close, netio_framing_netstring(9), NETIO_EPROTO, 5, '3'},
        {"2:ab,3:abcd", false, bad_abort, netio_framing_netstring(9), NETIO_EPROTO, 5, '3'},
        {"2:ab,3:a", true, NULL, netio_framing_netstring(9), NETIO_ETRUNCATED, 5, '3'},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        talk t;
        talk_init(&t, rows[i].framing);
        netio_handler answering = framed_all;
        answering.on_bad_frame = answer_bad_frame;
        bad_act = rows[i].act;
        bad_calls = 0;
        duo_open(&t.d, &framed_all, &answering);
        say(&t, rows[i].wire);
        if (rows[i].shut) CHECK_OK(CALL(netio_conn_shutdown(t.d.a.c)));
        RUN_UNTIL(t.d.loop, bad_calls == 1 && (t.d.a.ended || t.d.a.closed));
        if (!t.d.a.closed) CHECK_OK(CALL(netio_conn_close(t.d.a.c)));
        RUN_UNTIL(t.d.loop, t.d.b.closed);
        if (t.d.b.err != rows[i].err) printf("    row %d\n", (int)i);
        CHECK_STR("ab|", t.b.text);
        CHECK_ERR(rows[i].err, bad_err);
        CHECK_ERR(rows[i].err, t.d.b.err);
        CHECK_EQ(rows[i].offset, bad_seen.offset);
        CHECK_EQ(rows[i].first, bad_first);
        if (rows[i].act != bad_abort) CHECK_EQ(4, t.d.a.got); // "400\n"
        CHECK_EQ(1, bad_calls);
        talk_close(&t);
    }
}

TEST(conn_frame, claims_take_no_memory)
{
    talk t;
    talk_start(&t, netio_framing_length(4, 64u << 20));
    long long before = test_bytes();
    say_bytes(&t, "\003\0\0\0abc", 7); // 48 MiB are said to come
    RUN_UNTIL(t.d.loop, bytes_in(t.d.b.c) == 7);
    if (before >= 0) CHECK_BETWEEN(0, 128 * 1024, test_bytes() - before);
    talk_close(&t);
}

//================================================================================================
// Frames out
//================================================================================================

TEST(conn_frame, send_is_a_plain_write_without_framing)
{
    talk t;
    netio_frame f;
    memset(&f, 0, sizeof f);
    talk_start(&t, netio_framing_line(0));
    CHECK_OK(CALL(netio_conn_send(t.d.a.c, "as it is\n", 9)));
    RUN_UNTIL(t.d.loop, t.b.frames == 1);
    CHECK_STR("as it is|", t.b.text);
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_send_frame(t.d.a.c, NULL)));
    f.len = 3; // of nothing
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_send_frame(t.d.a.c, &f)));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_send(t.d.b.c, "a\nb", 3))); // contains the delimiter
    talk_close(&t);
}

static unsigned char seen_header[16];
static size_t seen_header_len;

static void see_header(end *e, reader *r, const netio_frame *f)
{
    (void)e, (void)r;
    seen_header_len = f->header_len;
    if (f->header_len <= sizeof seen_header) memcpy(seen_header, f->header, f->header_len);
}

TEST(conn_frame, header_bytes_are_sent_and_seen)
{
    talk t;
    netio_framing framing = netio_framing_length(2, 1000);
    netio_frame f;
    framing.header = 4; // length, then two of our own
    memset(&f, 0, sizeof f);
    talk_init(&t, framing);
    t.d.dial.conn.framing = framing;
    t.b.on = see_header;
    talk_open(&t);
    f.data = (const uint8_t *)"abc";
    f.len = 3;
    f.header = (const uint8_t *)"\0\0\007\011";
    f.header_len = 4;
    CHECK_OK(CALL(netio_conn_send_frame(t.d.a.c, &f)));
    RUN_UNTIL(t.d.loop, t.b.frames == 1);
    CHECK_EQ(4, seen_header_len);
    CHECK_MEM("\0\003\007\011", seen_header, 4);
    f.header_len = 3;
    CHECK_ERR(NETIO_EINVAL, CALL(netio_conn_send_frame(t.d.a.c, &f)));
    f.header_len = 4;
    f.len = 1001;
    CHECK_ERR(NETIO_EMSGSIZE, CALL(netio_conn_send(t.d.a.c, answer, 1001)));
    CHECK_EQ(1, t.b.frames);
    talk_close(&t);
}

// Formats that change the payload: small, as large as a receive buffer, and many at once.
TEST(conn_frame, formats_that_change_the_payload_are_copied)
{
    static const int which[] = {8, 9, 12};
    static unsigned char data[300000];
    static const size_t sizes[] = {1, 253, 254, 255, 1000, 16384, 70000, 300000};
    test_fill(data, sizeof data, 5);
    for (size_t i = 0; i < 3; i++) {
        talk t;
        uint32_t crc = 0;
        talk_init(&t, format(which[i]));
        t.d.dial.conn.framing = format_of_sender(which[i]);
        t.d.dial.conn.write_queue_max = 4u << 20;
        talk_open(&t);
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            uint32_t len = (uint32_t)sizes[k];
            CHECK_OK(CALL(netio_conn_send(t.d.a.c, data, len)));
            crc = netio_crc32(netio_crc32(crc, &len, sizeof len), data, len);
        }
        RUN_UNTIL(t.d.loop, t.d.b.closed || t.b.frames == sizeof sizes / sizeof sizes[0]);
        CHECK_EQ(crc, t.b.crc);
        talk_close(&t);
    }
}

// A frame is taken whole or refused whole.
TEST(conn_frame, full_queue_refuses_whole_frames)
{
    for (int copied = 0; copied < 2; copied++) {
        netio_framing framing = copied ? netio_framing_cobs(0) : netio_framing_length(4, 0);
        static char data[5000];
        talk t;
        int sent = 0;
        talk_init(&t, framing);
        t.d.small = 16384;
        t.d.dial.conn.framing = framing;
        t.d.dial.conn.write_queue_max = 20000;
        talk_open(&t);
        memset(data, 'z', sizeof data);
        CHECK_OK(CALL(netio_conn_pause(t.d.b.c)));
        for (int quiet = 0; quiet < 20;) {
            int err = CALL(netio_conn_send(t.d.a.c, data, sizeof data));
            CHECK(err == 0 || err == NETIO_ENOBUFS);
            if (err == 0) sent++, quiet = 0;
            else netio_loop_run_once(t.d.loop, 1), quiet++;
        }
        CHECK_OK(CALL(netio_conn_resume(t.d.b.c)));
        RUN_UNTIL(t.d.loop, t.b.frames >= sent);
        CHECK_EQ(sent, t.b.frames);
        CHECK_EQ((uint64_t)sent * sizeof data, t.b.bytes);
        netio_stats stats;
        CHECK_OK(netio_conn_stats(t.d.a.c, &stats));
        CHECK_EQ(sent, stats.frames_out);
        talk_close(&t);
    }
}

//================================================================================================
// WebSocket
//================================================================================================

static void ws_start(talk *t)
{
    talk_init(t, netio_framing_websocket(false, 0));
    t->d.dial.conn.framing = netio_framing_websocket(true, 0);
    talk_open(t);
}

static int ws_send(end *e, unsigned type, const void *data, size_t len)
{
    netio_frame f;
    memset(&f, 0, sizeof f);
    f.type = type;
    f.data = (const uint8_t *)data;
    f.len = len;
    return CALL(netio_conn_send_frame(e->c, &f));
}

TEST(conn_frame, websocket_ping_is_answered)
{
    talk t;
    ws_start(&t);
    CHECK_OK(ws_send(&t.d.a, NETIO_WS_PING, "are you?", 8));
    RUN_UNTIL(t.d.loop, t.a.frames == 1);
    CHECK_EQ(NETIO_WS_PONG, t.a.last.type);
    CHECK_STR("are you?|", t.a.text);
    CHECK_STR("are you?|", t.b.text); // shown as well
    CHECK_EQ(NETIO_WS_PING, t.b.last.type);
    CHECK_OK(ws_send(&t.d.b, NETIO_WS_PING, NULL, 0)); // the client answers masked
    RUN_UNTIL(t.d.loop, t.b.frames == 2);
    CHECK_EQ(NETIO_WS_PONG, t.b.last.type);
    talk_close(&t);
}

TEST(conn_frame, websocket_close_is_answered_and_ends_both)
{
    for (int who = 0; who < 2; who++) {
        talk t;
        unsigned char payload[32];
        ws_start(&t);
        end *from = who ? &t.d.b : &t.d.a, *to = who ? &t.d.a : &t.d.b;
        reader *from_r = (reader *)from->arg, *to_r = (reader *)to->arg;
        ptrdiff_t n = netio_ws_close_write(payload, sizeof payload, 1001, "away");
        CHECK(n == 6);
        CHECK_OK(ws_send(from, 0, "last", 4));
        CHECK_OK(ws_send(from, NETIO_WS_CLOSE, payload, (size_t)n));
        CHECK_ERR(NETIO_EPIPE, ws_send(from, 0, "late", 4));
        CHECK_ERR(NETIO_EPIPE, CALL(netio_conn_send(from->c, "late", 4)));
        RUN_UNTIL(t.d.loop, t.d.a.closed && t.d.b.closed);
        CHECK_ERR(0, t.d.a.err);
        CHECK_ERR(0, t.d.b.err);
        CHECK_EQ(2, to_r->frames);
        CHECK_EQ(1001, to_r->code);
        CHECK_EQ(1, from_r->frames); // the answer
        CHECK_EQ(1001, from_r->code);
        talk_close(&t);
    }
}

static void answer_close_late(end *e, reader *r, const netio_frame *f)
{
    if (f->type == NETIO_WS_CLOSE) r->result = CALL(netio_conn_send(e->c, "after", 5));
}

TEST(conn_frame, websocket_sends_nothing_after_its_close)
{
    talk t;
    ws_start(&t);
    t.b.on = answer_close_late;
    CHECK_OK(ws_send(&t.d.a, NETIO_WS_CLOSE, NULL, 0));
    RUN_UNTIL(t.d.loop, t.d.a.closed && t.d.b.closed);
    CHECK_ERR(NETIO_EPIPE, t.b.result);
    CHECK_EQ(1, t.a.frames);
    CHECK_EQ(1005, t.a.code);
    CHECK_ERR(0, t.d.a.err);
    CHECK_ERR(0, t.d.b.err);
    talk_close(&t);
}

// A ping behind a close frame is not answered; one behind our own close, while the peer's has not
// come, neither: nothing follows a close.
TEST(conn_frame, websocket_ping_after_close_is_not_answered)
{
    talk t;
    ws_start(&t);
    CHECK_OK(ws_send(&t.d.a, NETIO_WS_PING, "1", 1));
    CHECK_OK(ws_send(&t.d.b, NETIO_WS_CLOSE, NULL, 0));
    RUN_UNTIL(t.d.loop, t.d.a.closed && t.d.b.closed);
    CHECK_EQ(1, t.a.frames);
    CHECK_EQ(NETIO_WS_CLOSE, t.a.last.type);
    CHECK_ERR(0, t.d.a.err);
    CHECK_ERR(0, t.d.b.err);
    talk_close(&t);
    ws_start(&t);
    CHECK_OK(ws_send(&t.d.a, NETIO_WS_CLOSE, NULL, 0));
    say_bytes(&t, "\x89\x81\0\0\0\0p", 7); // against the rules
    RUN_UNTIL(t.d.loop, t.d.a.closed && t.d.b.closed);
    CHECK_EQ(1, t.b.frames);
    CHECK_EQ(1, t.a.frames);
    CHECK_EQ(NETIO_WS_CLOSE, t.a.last.type);
    talk_close(&t);
}

TEST(conn_frame, websocket_errors_are_told_to_the_peer)
{
    static char long_text[200];
    memset(long_text, 't', sizeof long_text);
    const struct {
        unsigned type;
        const void *data;
        size_t len;
        int err, code;
    } rows[] = {
        {NETIO_WS_TEXT, "\xff", 1, NETIO_EILSEQ, 1007},
        {NETIO_WS_TEXT, long_text, sizeof long_text, NETIO_EMSGSIZE, 1009},
        {NETIO_WS_CLOSE, "\0\1", 2, NETIO_EPROTO, 1002}, // a code that must not be sent
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        talk t;
        unsigned char wire[300];
        netio_framing client = netio_framing_websocket(true, 0);
        netio_frame f;
        memset(&f, 0, sizeof f);
        talk_init(&t, netio_framing_websocket(false, 100));
        t.d.dial.conn.framing = client;
        talk_open(&t);
        CHECK_OK(ws_send(&t.d.a, NETIO_WS_TEXT, "fine", 4));
        f.type = rows[i].type == NETIO_WS_CLOSE ? (unsigned)NETIO_WS_PING : rows[i].type;
        f.data = (const uint8_t *)rows[i].data;
        f.len = rows[i].len;
        ptrdiff_t n = netio_encode_into(wire, sizeof wire, &client, &f);
        CHECK(n > 0);
        if (rows[i].type == NETIO_WS_CLOSE) wire[0] = 0x88;
        say_bytes(&t, wire, (size_t)n);
        RUN_UNTIL(t.d.loop, t.d.a.closed && t.d.b.closed);
        CHECK_STR("fine|", t.b.text);
        CHECK_EQ(rows[i].code, t.a.code);
        CHECK_ERR(rows[i].err, t.d.b.err);
        CHECK_EQ(NETIO_STAGE_FRAME, t.d.b.error.stage);
        CHECK_EQ(10, t.d.b.error.offset);
        CHECK_ERR(0, t.d.a.err);
        talk_close(&t);
    }
}

TEST(conn_frame, websocket_unmasked_client_gets_1002)
{
    talk t;
    talk_init(&t, netio_framing_websocket(false, 0));
    t.d.a.on = see_wire;
    talk_open(&t);
    say(&t, "\x81\x01x");
    RUN_UNTIL(t.d.loop, t.d.a.ended);
    CHECK_EQ(4, t.d.a.got);
    CHECK_MEM("\x88\x02\x03\xea", wire_seen, 4);
    CHECK_OK(CALL(netio_conn_close(t.d.a.c)));
    RUN_UNTIL(t.d.loop, t.d.b.closed);
    CHECK_ERR(NETIO_EPROTO, t.d.b.err);
    talk_close(&t);
}

TEST(conn_frame, websocket_message_may_come_in_fragments)
{
    static unsigned char data[300000];
    talk t;
    uint32_t len = sizeof data;
    test_fill(data, sizeof data, 9);
    ws_start(&t);
    for (size_t at = 0; at < sizeof data; at += 50000) {
        netio_frame f;
        memset(&f, 0, sizeof f);
        f.type = NETIO_WS_BINARY;
        f.data = data + at;
        f.len = 50000;
        f.continues = at > 0;
        f.more = at + 50000 < sizeof data;
        CHECK_OK(CALL(netio_conn_send_frame(t.d.a.c, &f)));
        CHECK_OK(ws_send(&t.d.a, NETIO_WS_PING, "p", 1));
        RUN_UNTIL(t.d.loop, netio_conn_pending(t.d.a.c) == 0);
    }
    RUN_UNTIL(t.d.loop, t.b.frames == 7);
    CHECK_EQ(sizeof data + 6, t.b.bytes);
    t.b.crc = 0;
    CHECK_OK(ws_send(&t.d.a, NETIO_WS_BINARY, data, sizeof data));
    RUN_UNTIL(t.d.loop, t.b.frames == 8);
    CHECK_EQ(netio_crc32(netio_crc32(0, &len, sizeof len), data, len), t.b.crc);
    talk_close(&t);
}

//================================================================================================
// Filters, detach, relay
//================================================================================================

enum { XOR = 0x5A };

static void flip(unsigned char *out, const void *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0; i < len; i++) out[i] = (unsigned char)(p[i] ^ XOR);
}

static int xor_received(netio_filter_io *io, const void *data, size_t len)
{
    unsigned char piece[1000];
    const char *p = (const char *)data;
    for (size_t n; len > 0; p += n, len -= n) {
        n = len < sizeof piece ? len : sizeof piece;
        flip(piece, p, n);
        int err = netio_filter_deliver(io, piece, n);
        if (err < 0) return err;
    }
    return 0;
}

static int xor_written(netio_filter_io *io, const netio_buf *bufs, size_t count)
{
    unsigned char piece[1000];
    for (size_t i = 0; i < count; i++) {
        const char *p = (const char *)bufs[i].data;
        for (size_t n, len = bufs[i].len; len > 0; p += n, len -= n) {
            n = len < sizeof piece ? len : sizeof piece;
            flip(piece, p, n);
            int err = netio_filter_emit(io, piece, n);
            if (err < 0) return err;
        }
    }
    return 0;
}

static const netio_filter_ops xor_ops = {
    .name = "xor", .received = xor_received, .written = xor_written};
static const netio_filter_ops clean_xor_ops = {
    .name = "clean xor", .received = xor_received, .written = xor_written, .from_clean = true};

static netio_filter filter_of(const netio_filter_ops *ops)
{
    netio_filter f;
    f.ops = ops;
    f.arg = NULL;
    return f;
}

TEST(conn_frame, every_format_passes_a_filter)
{
    for (int i = 0; i < FORMATS; i++) {
        talk t;
        char payload[256];
        uint32_t crc = 0;
        talk_init(&t, format(i));
        t.d.dial.conn.framing = format_of_sender(i);
        t.d.dial.conn.filter = t.d.listen.conn.filter = filter_of(&xor_ops);
        talk_open(&t);
        for (int n = 0; n < 50; n++) {
            uint32_t len = (uint32_t)format_payload(i, n, payload);
            crc = netio_crc32(netio_crc32(crc, &len, sizeof len), payload, len);
            CHECK_OK(CALL(netio_conn_send(t.d.a.c, payload, len)));
        }
        RUN_UNTIL(t.d.loop, t.d.b.closed || t.b.frames == 50);
        CHECK_EQ(crc, t.b.crc);
        talk_close(&t);
    }
}

TEST(conn_frame, answers_under_a_filter_never_overflow_the_queue)
{
    answers_run(filter_of(&xor_ops));
}

static void pause_every_tenth(end *e, reader *r, const netio_frame *f)
{
    (void)f;
    if (r->frames % 10 == 0) CHECK_OK(CALL(netio_conn_pause(e->c)));
}

TEST(conn_frame, pause_under_a_filter_loses_nothing)
{
    talk t;
    uint32_t crc = 0;
    talk_init(&t, netio_framing_line(0));
    t.d.dial.conn.framing = netio_framing_line(0);
    t.d.dial.conn.filter = t.d.listen.conn.filter = filter_of(&xor_ops);
    t.b.on = pause_every_tenth;
    talk_open(&t);
    for (int n = 0; n < 200; n++) {
        char line[16];
        uint32_t len = (uint32_t)snprintf(line, sizeof line, "line %d", n);
        crc = netio_crc32(netio_crc32(crc, &len, sizeof len), line, len);
        CHECK_OK(CALL(netio_conn_send(t.d.a.c, line, len)));
    }
    CHECK_OK(CALL(netio_conn_shutdown(t.d.a.c)));
    for (int n = 10; n <= 200; n += 10) {
        RUN_UNTIL(t.d.loop, t.b.frames == n);
        netio_loop_run_once(t.d.loop, 1);
        CHECK_EQ(n, t.b.frames);
        CHECK_OK(CALL(netio_conn_resume(t.d.b.c)));
    }
    RUN_UNTIL(t.d.loop, t.d.b.ended);
    CHECK_EQ(crc, t.b.crc);
    talk_close(&t);
}

static const netio_filter_ops *to_add;

static void start_tls(end *e, reader *r, const netio_frame *f)
{
    if (f->len != 8 || memcmp(f->data, "STARTTLS", 8) != 0) return;
    r->result = CALL(netio_conn_add_filter(e->c, filter_of(to_add)));
}

// STARTTLS: what follows the command passes the filter, whether it came with it or later.
TEST(conn_frame, filter_added_in_a_frame_reads_the_rest)
{
    unsigned char wire[32] = "hello\nSTARTTLS\n";
    size_t plain = strlen((char *)wire), len = plain + 14;
    flip(wire + plain, "secret\nmore\nx\n", 14);
    to_add = &xor_ops;
    for (size_t cut = 0; cut < len; cut++) {
        talk t;
        talk_init(&t, netio_framing_line(0));
        t.b.on = start_tls;
        talk_open(&t);
        if (cut) say_bytes(&t, wire, cut);
        RUN_UNTIL(t.d.loop, bytes_in(t.d.b.c) == cut);
        say_bytes(&t, wire + cut, len - cut);
        RUN_UNTIL(t.d.loop, t.d.b.closed || t.b.frames == 5);
        CHECK_OK(t.b.result);
        CHECK_STR("hello|STARTTLS|secret|more|x|", t.b.text);
        RUN_UNTIL(t.d.loop, t.d.b.secured == 1);
        talk_close(&t);
    }
}

TEST(conn_frame, filter_from_clean_refuses_when_frames_wait)
{
    talk t;
    to_add = &clean_xor_ops;
    talk_init(&t, netio_framing_line(0));
    t.b.on = start_tls;
    talk_open(&t);
    if (!test_rough()) { // one piece
        say(&t, "STARTTLS\nINJECTED\n");
        RUN_UNTIL(t.d.loop, t.b.frames == 2);
        CHECK_ERR(NETIO_EPROTO, t.b.result);
        CHECK_STR("STARTTLS|INJECTED|", t.b.text); // it goes on without
        t.b.len = 0;
        t.b.frames = 0;
    }
    say(&t, "STARTTLS\n");
    RUN_UNTIL(t.d.loop, t.d.b.secured == 1);
    CHECK_OK(t.b.result);
    unsigned char wire[6];
    flip(wire, "later\n", 6);
    say_bytes(&t, wire, 6);
    RUN_UNTIL(t.d.loop, t.b.frames == 2);
    CHECK_STR("STARTTLS|later|", t.b.text);
    talk_close(&t);
}

static netio_socket detached;
static char detached_rest[64];
static ptrdiff_t detached_len;

static void detach(end *e, reader *r, const netio_frame *f)
{
    (void)r, (void)f;
    if (CALL((int)netio_conn_detach(e->c, &detached, detached_rest, 3)) != NETIO_ENOSPC)
        r->broken = "detach into too little room";
    test_calling++;
    detached_len = netio_conn_detach(e->c, &detached, detached_rest, sizeof detached_rest);
    test_calling--;
}

TEST(conn_frame, detach_gives_back_unread_bytes)
{
    if (test_in_memory()) SKIP("there are no sockets in memory");
    for (int inside = 0; inside < 2; inside++) {
        talk t;
        talk_init(&t, netio_framing_line(0));
        t.b.on = inside ? detach : pause_each;
        talk_open(&t);
        say(&t, "one\ntwo\nthr");
        RUN_UNTIL(t.d.loop, t.b.frames == 1);
        if (!inside) detach(&t.d.b, &t.b, NULL);
        CHECK_EQ(7, detached_len);
        CHECK_MEM("two\nthr", detached_rest, 7);
        RUN_UNTIL(t.d.loop, t.d.b.closed);
        CHECK_ERR(0, t.d.b.err);
        say(&t, "ee\n");
        CHECK_OK(CALL(netio_conn_flush(t.d.a.c)));
        CHECK_OK(netio_recv_exact(detached, detached_rest, 3, NULL, 5000));
        CHECK_MEM("ee\n", detached_rest, 3);
        CHECK_OK(netio_close(&detached));
        talk_close(&t);
    }
}

static netio_conn relay_to;

static void relay_on_go(end *e, reader *r, const netio_frame *f)
{
    if (f->len == 2) r->result = CALL(netio_conn_relay(e->c, relay_to));
}

TEST(conn_frame, relay_drops_framing_and_passes_the_rest)
{
    static const char wire[] = "hi!\ngo\nraw bytes, no line end";
    for (size_t cut = 0; cut < sizeof wire - 1; cut += 3) {
        talk t;
        end far_end, ends[2];
        reader far_reader;
        pool p;
        memset(&far_end, 0, sizeof far_end);
        memset(&far_reader, 0, sizeof far_reader);
        memset(&p, 0, sizeof p);
        far_end.arg = &far_reader;
        far_end.on = see_wire;
        p.kind = KIND_POOL;
        p.ends = ends;
        p.cap = 2;
        talk_init(&t, netio_framing_line(0));
        p.like.arg = &t.b;
        t.b.on = relay_on_go;
        t.d.listen.conn.user = &p;
        duo_start(&t.d, &framed_all, &framed_all);
        RUN_UNTIL(t.d.loop, t.d.a.opened && p.used == 1);
        duo_dial(&t.d, &far_end, &framed_all);
        RUN_UNTIL(t.d.loop, far_end.opened && p.used == 2);
        relay_to = ends[1].c;
        if (cut) say_bytes(&t, wire, cut);
        RUN_UNTIL(t.d.loop, bytes_in(ends[0].c) == cut);
        say_bytes(&t, wire + cut, sizeof wire - 1 - cut);
        RUN_UNTIL(t.d.loop, far_end.got == sizeof wire - 1 - 7 || ends[0].closed);
        CHECK_STR("hi!|go|", t.b.text);
        CHECK_OK(t.b.result);
        CHECK_MEM(wire + 7, wire_seen, sizeof wire - 1 - 7);
        CHECK_OK(CALL(netio_conn_write(far_end.c, "back\n", 5)));
        RUN_UNTIL(t.d.loop, t.d.a.got == 5);
        talk_close(&t);
    }
}

//================================================================================================
// PROXY headers of a listener
//================================================================================================

static struct {
    int times;
    netio_error why;
} refused;

static void note_refused(void *user, const netio_addr *peer, const netio_error *why)
{
    (void)user, (void)peer;
    refused.times++;
    refused.why = *why;
}

static char seen_peer[NETIO_ADDR_TEXT];

static void note_peer(end *e, int what, const void *data, size_t len)
{
    netio_addr peer;
    see_wire(e, what, data, len);
    if (what != OPENED) return;
    CHECK_OK(netio_conn_peer(e->c, &peer));
    CHECK(netio_addr_format(&peer, seen_peer, sizeof seen_peer) > 0);
}

static const char *const anyone[] = {"127.0.0.0/8", "10.0.0.0/8"};
static const char *const others[] = {"192.0.2.0/24"};

static void proxied_init(talk *t, const char *const *trusted, size_t count)
{
    talk_init(t, no_framing());
    memset(&refused, 0, sizeof refused);
    seen_peer[0] = 0;
    t->d.listen.proxy_protocol = true;
    t->d.listen.proxy_trusted = trusted;
    t->d.listen.proxy_trusted_count = count;
    t->d.listen.on_refused = note_refused;
    t->d.b.on = note_peer;
}

static size_t proxy_header(void *buf, size_t cap, int version)
{
    netio_addr src, dst;
    CHECK_OK(netio_addr_parse(&src, "203.0.113.7:4711", 16));
    CHECK_OK(netio_addr_parse(&dst, "192.0.2.1:443", 13));
    ptrdiff_t n = netio_proxy_write(buf, cap, version, &src, &dst);
    CHECK(n > 0);
    return (size_t)n;
}

static uint64_t loop_bytes_in(netio_loop *loop)
{
    netio_stats stats;
    netio_loop_stats(loop, &stats);
    return stats.bytes_in;
}

TEST(conn_frame, proxy_header_names_the_client)
{
    for (int version = 1; version <= 2; version++) {
        unsigned char wire[256];
        size_t head = proxy_header(wire, sizeof wire, version);
        memcpy(wire + head, "data", 4);
        for (size_t cut = 1; cut < head + 4; cut++) {
            talk t;
            proxied_init(&t, anyone, 2);
            duo_start(&t.d, &framed_all, &framed_all);
            RUN_UNTIL(t.d.loop, t.d.a.opened);
            say_bytes(&t, wire, cut);
            RUN_UNTIL(t.d.loop, loop_bytes_in(t.d.loop) >= cut);
            CHECK_EQ(cut >= head, t.d.b.opened);
            say_bytes(&t, wire + cut, head + 4 - cut);
            RUN_UNTIL(t.d.loop, t.d.b.got == 4 || refused.times);
            CHECK_STR("203.0.113.7:4711", seen_peer);
            CHECK_MEM("data", wire_seen, 4);
            CHECK_EQ(0, refused.times);
            talk_close(&t);
        }
    }
}

TEST(conn_frame, proxy_header_of_the_proxy_itself_leaves_the_address)
{
    for (int version = 1; version <= 2; version++) {
        talk t;
        unsigned char wire[64];
        netio_addr mine;
        char want[NETIO_ADDR_TEXT];
        proxied_init(&t, anyone, 2);
        duo_start(&t.d, &framed_all, &framed_all);
        ptrdiff_t n = netio_proxy_write(wire, sizeof wire, version, NULL, NULL);
        CHECK(n > 0);
        say_bytes(&t, wire, (size_t)n);
        RUN_UNTIL(t.d.loop, t.d.b.opened);
        CHECK_OK(netio_conn_local(t.d.a.c, &mine));
        CHECK(netio_addr_format(&mine, want, sizeof want) > 0);
        CHECK_STR(want, seen_peer);
        talk_close(&t);
    }
}

TEST(conn_frame, proxy_header_that_is_bad_or_missing_is_refused)
{
    static const char *const wires[] = {"GET / HTTP/1.1\r\n", "PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
                                        "PROXY TCP4 1.2.3.4 1.2.3.4 99999 1\r\n", "PROXY TCP4 1.2.",
                                        ""}; // the last two: then it ends
    for (size_t i = 0; i < sizeof wires / sizeof wires[0]; i++) {
        talk t;
        proxied_init(&t, anyone, 2);
        t.d.listen.conn.close_timeout_ms = 50; // who dialed does not hang up
        duo_start(&t.d, &framed_all, &framed_all);
        RUN_UNTIL(t.d.loop, t.d.a.opened);
        if (wires[i][0]) say(&t, wires[i]);
        if (i >= 3) CHECK_OK(CALL(netio_conn_shutdown(t.d.a.c)));
        RUN_UNTIL(t.d.loop, refused.times);
        if (refused.why.err != NETIO_EPROTO) printf("    row %d\n", (int)i);
        CHECK_ERR(NETIO_EPROTO, refused.why.err);
        CHECK_EQ(0, t.d.b.opened);
        talk_close(&t);
        CHECK_EQ(1, refused.times);
    }
}

TEST(conn_frame, proxy_that_is_not_trusted_is_refused)
{
    talk t;
    unsigned char wire[256];
    size_t head = proxy_header(wire, sizeof wire, 1);
    proxied_init(&t, others, 1);
    duo_start(&t.d, &framed_all, &framed_all);
    say_bytes(&t, wire, head);
    RUN_UNTIL(t.d.loop, refused.times);
    CHECK_ERR(NETIO_EACCES, refused.why.err);
    CHECK_EQ(0, t.d.b.opened);
    talk_close(&t);
}

TEST(conn_frame, proxy_protocol_needs_somebody_to_trust)
{
    static const char *const nonsense[] = {"nobody"};
    talk t;
    netio_loop *loop;
    netio_listener l;
    proxied_init(&t, NULL, 0);
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_ERR(NETIO_EINVAL,
              CALL(netio_listener_open(&l, loop, test_loop_addr(), &framed_all, &t.d.listen)));
    t.d.listen.proxy_trusted = nonsense;
    t.d.listen.proxy_trusted_count = 1;
    CHECK_ERR(NETIO_EINVAL,
              CALL(netio_listener_open(&l, loop, test_loop_addr(), &framed_all, &t.d.listen)));
    test_loop_destroy(&loop);
}

// The header comes in the clear, what follows passes the listener's filter and becomes frames.
TEST(conn_frame, proxy_header_is_outside_the_filter)
{
    unsigned char wire[256];
    size_t head = proxy_header(wire, sizeof wire, 2);
    flip(wire + head, "one\ntwo\n", 8);
    for (size_t cut = 1; cut < head + 8; cut += 5) {
        talk t;
        proxied_init(&t, anyone, 2);
        t.d.listen.conn.filter = filter_of(&xor_ops);
        t.d.listen.conn.framing = netio_framing_line(0);
        duo_start(&t.d, &framed_all, &framed_all);
        RUN_UNTIL(t.d.loop, t.d.a.opened);
        say_bytes(&t, wire, cut);
        for (int i = 0; i < 5; i++) netio_loop_run_once(t.d.loop, 5);
        say_bytes(&t, wire + cut, head + 8 - cut);
        RUN_UNTIL(t.d.loop, t.b.frames == 2 || refused.times);
        CHECK_STR("one|two|", t.b.text);
        CHECK_STR("203.0.113.7:4711", seen_peer);
        talk_close(&t);
    }
}

//================================================================================================
// Dialing through a proxy
//================================================================================================

// A proxy that knows its lines: whenever it has heard `want` it says `reply`.
typedef struct line {
    const char *want;
    size_t want_len;
    const char *reply;
    size_t reply_len;
} line;

typedef struct script {
    const char *name, *url; // %s: the proxy's address
    line lines[3];
    bool hang_up; // after the last line
    int err;      // of the dial; 0: the tunnel opens, with "first" behind the reply
} script;

static const script *playing;
static int line_at;
static size_t heard_len;
static char heard[1024];

static void play(end *e, int what, const void *data, size_t len)
{
    if (what != DATA) return;
    CHECK(heard_len + len < sizeof heard);
    memcpy(heard + heard_len, data, len);
    heard_len += len;
    heard[heard_len] = 0;
    if (line_at == 3 || !playing->lines[line_at].want) {
        CHECK_OK(CALL(netio_conn_write(e->c, heard, heard_len))); // an echo is the target
        heard_len = 0;
        return;
    }
    const line *l = &playing->lines[line_at];
    if (heard_len < l->want_len) return;
    if (memcmp(heard, l->want, l->want_len) != 0)
        test_fail(__FILE__, __LINE__, "%s, line %d: %s", playing->name, line_at, heard);
    heard_len = 0;
    line_at++;
    if (l->reply_len) CHECK_OK(CALL(netio_conn_write(e->c, l->reply, l->reply_len)));
    if (playing->hang_up && (line_at == 3 || !playing->lines[line_at].want))
        CHECK_OK(CALL(netio_conn_close(e->c)));
}

// clang-format off
#define LINE(want, reply) {want, sizeof want - 1, reply, sizeof reply - 1}
#define SOCKS_HI LINE("\5\1\0", "\5\0")
#define SOCKS_TO "\5\1\0\3\013target.test\0\120"
#define HTTP_TO "CONNECT target.test:80 HTTP/1.1\r\n"

static const script scripts[] = {
    {"socks", "socks5://%s", {SOCKS_HI, LINE(SOCKS_TO, "\5\0\0\1\1\2\3\4\0\1first")}, false, 0},
    {"socks with a user", "socks5://me:pw@%s",
     {LINE("\5", "\5\2"), LINE("\1\2me\2pw", "\1\0"),
      LINE(SOCKS_TO, "\5\0\0\1\1\2\3\4\0\1first")}, false, 0},
    {"socks refused", "socks5://%s",
     {SOCKS_HI, LINE(SOCKS_TO, "\5\5\0\1\0\0\0\0\0\0")}, false, NETIO_ECONNREFUSED},
    {"socks unreachable", "socks5://%s",
     {SOCKS_HI, LINE(SOCKS_TO, "\5\4\0\1\0\0\0\0\0\0")}, false, NETIO_EHOSTUNREACH},
    {"socks forbidden", "socks5://%s",
     {SOCKS_HI, LINE(SOCKS_TO, "\5\2\0\1\0\0\0\0\0\0")}, false, NETIO_EACCES},
    {"socks wants a user", "socks5://%s", {LINE("\5\1\0", "\5\377")}, false, NETIO_EACCES},
    {"socks is none", "socks5://%s", {LINE("\5", "HTTP/1.1 400")}, false, NETIO_EPROTO},
    {"socks hangs up", "socks5://%s", {SOCKS_HI, LINE(SOCKS_TO, "")}, true, NETIO_EPROTO},
    {"http", "http://%s", {LINE(HTTP_TO, "HTTP/1.1 200 OK\r\n\r\nfirst")}, false, 0},
    {"http refused", "http://%s",
     {LINE(HTTP_TO, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")}, false, NETIO_EACCES},
    {"http is none", "http://%s", {LINE(HTTP_TO, "220 smtp.test\r\n")}, false, NETIO_EPROTO},
    {"http hangs up", "http://%s", {LINE(HTTP_TO, "HTTP/1.1 200")}, true, NETIO_EPROTO},
};
// clang-format on

static void tunnel_run(const script *s, bool filtered)
{
    talk t;
    char url[128];
    end *b;
    netio_loop *loop;
    netio_listener l;
    netio_addr addr;
    char text[NETIO_ADDR_TEXT];
    talk_init(&t, no_framing());
    playing = s;
    line_at = 0;
    heard_len = 0;
    b = &t.d.b;
    b->on = play;
    t.d.listen.conn.user = b;
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(CALL(netio_listener_open(&l, loop, test_loop_addr(), &framed_all, &t.d.listen)));
    CHECK_OK(netio_listener_addr(l, &addr));
    CHECK(netio_addr_format(&addr, text, sizeof text) > 0);
    snprintf(url, sizeof url, s->url, text);
    t.d.dial.proxy = url;
    t.d.dial.conn.user = &t.d.a;
    t.d.dial.conn.framing = netio_framing_fixed(5);
    if (s->err) t.d.dial.conn.close_timeout_ms = 50; // the proxy does not hang up
    if (filtered) t.d.dial.conn.filter = filter_of(&xor_ops);
    CHECK_OK(CALL(netio_conn_dial(&t.d.a.c, loop, "target.test:80", &framed_all, &t.d.dial)));
    memset(url, 'x', sizeof url); // it was copied
    CHECK_STR("target.test", netio_conn_server_name(t.d.a.c));
    CHECK_OK(CALL(netio_conn_send(t.d.a.c, "early", 5))); // waits for the tunnel
    RUN_UNTIL(loop, t.d.a.closed || t.a.frames == 2);
    if (t.d.a.err != s->err) printf("    %s: %s\n", s->name, netio_errname(t.d.a.err));
    CHECK_ERR(s->err, t.d.a.err);
    CHECK_EQ(s->err == 0, t.d.a.opened);
    if (s->err) CHECK_EQ(NETIO_STAGE_PROXY, t.d.a.error.stage);
    else if (!filtered) CHECK_STR("first|early|", t.a.text);
    else CHECK_MEM("|early|", t.a.text + 5, 7); // not what the proxy said in the clear
    test_loop_destroy(&loop);
    CHECK_EQ(1, t.d.a.closed);
    end_check(&t.d.a);
    end_check(b);
}

TEST(conn_frame, dial_through_a_proxy)
{
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        tunnel_run(&scripts[i], false);
        if (scripts[i].err == 0) tunnel_run(&scripts[i], true);
    }
}

TEST(conn_frame, dial_through_a_proxy_that_is_not_there)
{
    talk t;
    netio_loop *loop;
    char port[NETIO_ADDR_TEXT], url[NETIO_ADDR_TEXT + 16];
    talk_init(&t, no_framing());
    CHECK_OK(test_loop_create(&loop, NULL));
    closed_port(loop, port);
    snprintf(url, sizeof url, "socks5://%s", port);
    t.d.dial.proxy = url;
    t.d.dial.conn.user = &t.d.a;
    CHECK_OK(CALL(netio_conn_dial(&t.d.a.c, loop, "target.test:80", &framed_all, &t.d.dial)));
    RUN_UNTIL(loop, t.d.a.closed);
    CHECK_ERR(NETIO_ECONNREFUSED, t.d.a.err);
    CHECK_EQ(NETIO_STAGE_CONNECT, t.d.a.error.stage);
    t.d.dial.proxy = "ftp://a:1";
    netio_conn c;
    CHECK(CALL(netio_conn_dial(&c, loop, "target.test:80", &framed_all, &t.d.dial)) < 0);
    test_loop_destroy(&loop);
}

//================================================================================================
// Memory that is refused
//================================================================================================

// A framed exchange in which the n-th allocation fails. Returns whether one did.
static bool starved_exchange(long n, int format_index)
{
    talk t;
    char payload[256];
    int sent = 0, err = 0;
    bool failed;
    talk_init(&t, format(format_index));
    t.d.dial.conn.framing = format_of_sender(format_index);
    talk_open(&t);
    link_pieces(7);
    long before = test_allocs();
    test_alloc_fail_at(n);
    for (int i = 0; i < 8 && err == 0; i++) {
        size_t len = format_payload(format_index, i, payload);
        err = CALL(netio_conn_send(t.d.a.c, payload, len));
        if (err == 0) sent++;
        if (i % 3 == 2) netio_loop_run_once(t.d.loop, 1);
    }
    CHECK(err == 0 || err == NETIO_ENOMEM || err == NETIO_ESTALE);
    RUN_UNTIL(t.d.loop, t.d.a.closed || t.d.b.closed || t.b.frames == sent);
    failed = test_allocs() - before >= n;
    test_alloc_fail_at(0);
    if (t.d.b.closed) CHECK(t.d.b.err == NETIO_ENOMEM || t.d.a.err == NETIO_ENOMEM);
    talk_close(&t);
    return failed;
}

TEST(conn_frame, allocation_that_fails_has_a_name)
{
    static const int which[] = {0, 3, 8, 12};
    for (size_t i = 0; i < 4; i++) {
        long n = 1;
        while (n < 60 && starved_exchange(n, which[i])) n++;
        CHECK(n > 1);
    }
}

static void play_starved(end *e, int what, const void *data, size_t len)
{
    const line *l = &playing->lines[line_at];
    if (what != DATA) return;
    heard_len += len;
    if (line_at == 3 || !l->want || heard_len < l->want_len) return;
    heard_len = 0;
    line_at++;
    (void)data;
    if (CALL(netio_conn_write(e->c, l->reply, l->reply_len)) < 0)
        CHECK_OK(CALL(netio_conn_abort(e->c)));
}

// From dialing to the first frame. Returns whether an allocation failed.
static bool starved_tunnel(long n)
{
    talk t;
    char url[NETIO_ADDR_TEXT + 16], text[NETIO_ADDR_TEXT];
    netio_loop *loop;
    netio_listener l;
    netio_addr addr;
    talk_init(&t, no_framing());
    playing = &scripts[0];
    line_at = 0;
    heard_len = 0;
    t.d.b.on = play_starved;
    t.d.listen.conn.user = &t.d.b;
    t.d.listen.on_refused = note_refused;
    memset(&refused, 0, sizeof refused);
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(CALL(netio_listener_open(&l, loop, test_loop_addr(), &framed_all, &t.d.listen)));
    CHECK_OK(netio_listener_addr(l, &addr));
    CHECK(netio_addr_format(&addr, text, sizeof text) > 0);
    snprintf(url, sizeof url, "socks5://%s", text);
    t.d.dial.proxy = url;
    t.d.dial.timeout_ms = 500;
    t.d.dial.conn.user = &t.d.a;
    t.d.dial.conn.framing = netio_framing_fixed(5);
    t.d.dial.conn.filter = filter_of(&xor_ops);
    long before = test_allocs();
    test_alloc_fail_at(n);
    int err = CALL(netio_conn_dial(&t.d.a.c, loop, "target.test:80", &framed_all, &t.d.dial));
    CHECK(err == 0 || err == NETIO_ENOMEM);
    if (err == 0) RUN_UNTIL(loop, t.d.a.closed || t.a.frames == 1);
    bool failed = test_allocs() - before >= n;
    test_alloc_fail_at(0);
    if (err == 0 && !failed) CHECK_EQ(0, t.d.a.closed);
    if (err == 0 && t.d.a.closed) CHECK(t.d.a.err < 0);
    test_loop_destroy(&loop);
    end_check(&t.d.a);
    return failed;
}

TEST(conn_frame, dial_through_a_proxy_without_memory_has_a_name)
{
    long n = 1;
    while (n < 60 && starved_tunnel(n)) n++;
    CHECK_BETWEEN(5, 59, n);
}

// clang-format off
TEST_MAIN("conn_frame",
          T(conn_frame, every_format_in_every_cut),
          T(conn_frame, every_format_byte_by_byte),
          T(conn_frame, counters_tell_frames_in_and_out),
          T(conn_frame, pause_keeps_what_follows_and_resume_hands_it_out),
          T(conn_frame, paused_frames_come_before_the_end),
          T(conn_frame, answers_never_overflow_the_queue),
          T(conn_frame, high_queue_stops_frames_until_it_drained),
          T(conn_frame, close_and_abort_end_the_frames),
          T(conn_frame, change_rereads_what_was_received),
          T(conn_frame, change_from_outside_rereads_too),
          T(conn_frame, http_head_becomes_websocket),
          T(conn_frame, last_line_needs_no_end),
          T(conn_frame, last_line_may_change_the_framing),
          T(conn_frame, last_change_in_a_callback_counts),
          T(conn_frame, end_inside_a_frame_is_told),
          T(conn_frame, bad_frames_end_the_connection_with_a_name),
          T(conn_frame, bad_frames_can_be_answered),
          T(conn_frame, claims_take_no_memory),
          T(conn_frame, send_is_a_plain_write_without_framing),
          T(conn_frame, header_bytes_are_sent_and_seen),
          T(conn_frame, formats_that_change_the_payload_are_copied),
          T(conn_frame, full_queue_refuses_whole_frames),
          T(conn_frame, websocket_ping_is_answered),
          T(conn_frame, websocket_close_is_answered_and_ends_both),
          T(conn_frame, websocket_sends_nothing_after_its_close),
          T(conn_frame, websocket_ping_after_close_is_not_answered),
          T(conn_frame, websocket_errors_are_told_to_the_peer),
          T(conn_frame, websocket_unmasked_client_gets_1002),
          T(conn_frame, websocket_message_may_come_in_fragments),
          T(conn_frame, every_format_passes_a_filter),
          T(conn_frame, answers_under_a_filter_never_overflow_the_queue),
          T(conn_frame, pause_under_a_filter_loses_nothing),
          T(conn_frame, filter_added_in_a_frame_reads_the_rest),
          T(conn_frame, filter_from_clean_refuses_when_frames_wait),
          T(conn_frame, detach_gives_back_unread_bytes),
          T(conn_frame, relay_drops_framing_and_passes_the_rest),
          T(conn_frame, proxy_header_names_the_client),
          T(conn_frame, proxy_header_of_the_proxy_itself_leaves_the_address),
          T(conn_frame, proxy_header_that_is_bad_or_missing_is_refused),
          T(conn_frame, proxy_that_is_not_trusted_is_refused),
          T(conn_frame, proxy_protocol_needs_somebody_to_trust),
          T(conn_frame, proxy_header_is_outside_the_filter),
          T(conn_frame, dial_through_a_proxy),
          T(conn_frame, dial_through_a_proxy_that_is_not_there),
          T(conn_frame, allocation_that_fails_has_a_name),
          T(conn_frame, dial_through_a_proxy_without_memory_has_a_name))
