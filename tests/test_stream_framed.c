// Streams: one value over a socket or a table of the user's own; frames and gathered writes on it.
#include "test.h"

//================================================================================================
// A stream in memory, with every short read and write that a test wants
//================================================================================================

typedef struct memory {
    netio_queue *queue; // what was sent and not yet received
    size_t step;        // bytes one call moves at most; 0: any
    long recvs, sends;
    size_t room; // bytes that can still be sent; then NETIO_EAGAIN
    bool ended, closed, idle;
} memory;

static ptrdiff_t memory_recv(void *self, void *buf, size_t cap, int timeout_ms)
{
    memory *m = (memory *)self;
    netio_buf front = netio_queue_front(m->queue);
    size_t n = front.len < cap ? front.len : cap;
    (void)timeout_ms;
    m->recvs++;
    if (m->idle) return 0;
    if (n == 0) return m->ended ? NETIO_EOF : NETIO_EAGAIN;
    if (m->step && n > m->step) n = m->step;
    memcpy(buf, front.data, n);
    netio_queue_drop(m->queue, n);
    return (ptrdiff_t)n;
}

static ptrdiff_t memory_sendv(void *self, const netio_buf *bufs, size_t count, int timeout_ms)
{
    memory *m = (memory *)self;
    size_t total = 0, most = m->step && m->step < m->room ? m->step : m->room;
    (void)timeout_ms;
    m->sends++;
    if (m->idle) return 0;
    if (most == 0) return NETIO_EAGAIN;
    for (size_t i = 0; i < count && total < most; i++) {
        size_t n = bufs[i].len < most - total ? bufs[i].len : most - total;
        CHECK_OK(netio_queue_put(m->queue, bufs[i].data, n));
        total += n;
    }
    m->room -= total;
    return (ptrdiff_t)total;
}

static int memory_shutdown(void *self, int timeout_ms)
{
    (void)timeout_ms;
    ((memory *)self)->ended = true;
    return 0;
}

static int memory_close(void *self)
{
    ((memory *)self)->closed = true;
    return 0;
}

static const netio_stream_ops memory_ops = {memory_recv, memory_sendv, memory_shutdown,
                                            memory_close};

static netio_stream memory_open(memory *m)
{
    netio_stream st;
    memset(m, 0, sizeof *m);
    CHECK_OK(netio_queue_create(&m->queue, 1 << 24));
    m->room = SIZE_MAX;
    st.ops = &memory_ops;
    st.self = m;
    st.socket = NETIO_INVALID_SOCKET;
    return st;
}

//================================================================================================
// The same frames over every transport
//================================================================================================

static ptrdiff_t bang_parse(const netio_framing *framing, const uint8_t *data, size_t len,
                            netio_frame *out, size_t *need)
{
    const uint8_t *end = (const uint8_t *)memchr(data, '!', len);
    (void)framing, (void)need;
    if (!end) return 0;
    out->data = data;
    out->len = (size_t)(end - data);
    return (ptrdiff_t)out->len + 1;
}

static int bang_wrap(netio_envelope *out, const netio_framing *framing, const netio_frame *frame)
{
    (void)framing, (void)frame;
    out->head_len = 0;
    out->tail_len = 1;
    out->tail[0] = '!';
    return 0;
}

static const netio_format_ops bang = {bang_parse, bang_wrap};

enum { FRAMINGS = 8 };

static netio_framing framing_of(int i)
{
    switch (i) {
    case 0: return netio_framing_line(2000);
    case 1: return netio_framing_delimiter("<end>", 5, 2000);
    case 2: return netio_framing_length(4, 2000);
    case 3: return netio_framing_varint(2000);
    case 4: return netio_framing_netstring(2000);
    case 5: return netio_framing_cobs(2000);
    case 6: return netio_framing_slip(2000);
    default: return netio_framing_custom(&bang, NULL, 2000);
    }
}

static netio_frame frame_of(const void *data, size_t len)
{
    netio_frame f;
    memset(&f, 0, sizeof f);
    f.data = (const uint8_t *)data;
    f.len = len;
    return f;
}

static const char *payload(size_t len)
{
    static char text[2000];
    for (size_t i = 0; i < len; i++) text[i] = (char)('a' + (i + len) % 26);
    return text;
}

// What is written at one end, whole frames of many sizes and a shutdown, is read at the other.
static void check_transport(netio_stream *to, netio_stream *from, int framing)
{
    static const size_t sizes[] = {1, 2, 300, 5, 254, 255, 2000, 7};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    netio_framing f = framing_of(framing);
    netio_decoder d;
    netio_frame frame;
    for (size_t i = 0; i < SIZES; i++) {
        frame = frame_of(payload(sizes[i]), sizes[i]);
        CHECK_OK(netio_stream_write_frame(to, &f, &frame, 5000));
    }
    CHECK_OK(netio_stream_shutdown(to, 5000));
    CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
    for (size_t i = 0; i < SIZES; i++) {
        CHECK_OK(netio_stream_read_frame(from, &d, &frame, 5000));
        CHECK_EQ(sizes[i], frame.len);
        CHECK_MEM(payload(sizes[i]), frame.data, sizes[i]);
    }
    CHECK_ERR(NETIO_EOF, netio_stream_read_frame(from, &d, &frame, 5000));
    CHECK_ERR(NETIO_EOF, netio_stream_read_frame(from, &d, &frame, 5000));
    netio_decoder_free(&d);
}

TEST(stream, tcp_carries_every_framing)
{
    for (int i = 0; i < FRAMINGS; i++) {
        netio_socket a, b;
        netio_stream to, from;
        test_tcp_pair(&a, &b);
        to = netio_stream_from_socket(a);
        from = netio_stream_from_socket(b);
        CHECK(to.socket == a);
        check_transport(&to, &from, i);
        CHECK_OK(netio_stream_close(&to));
        CHECK_OK(netio_stream_close(&from));
        CHECK_ERR(NETIO_EBADF, netio_close(&a));
        CHECK(from.socket == NETIO_INVALID_SOCKET);
    }
}

TEST(stream, pair_carries_every_framing)
{
    for (int i = 0; i < FRAMINGS; i++) {
        netio_socket s[2];
        netio_stream to, from;
        CHECK_OK(netio_pair(s, NETIO_STREAM));
        to = netio_stream_from_socket(s[0]);
        from = netio_stream_from_socket(s[1]);
        check_transport(&to, &from, i);
        CHECK_OK(netio_stream_close(&to));
        CHECK_OK(netio_stream_close(&from));
    }
}

// Also where each call moves a few bytes only.
TEST(stream, table_of_ones_own_carries_every_framing)
{
    for (int i = 0; i < FRAMINGS; i++) {
        for (size_t step = 0; step < 9; step += step == 0 ? 1 : 4) {
            memory m;
            netio_stream st = memory_open(&m), copy = st;
            m.step = step;
            check_transport(&st, &copy, i);
            CHECK_OK(netio_stream_close(&st));
            CHECK(m.closed);
            netio_queue_destroy(m.queue);
        }
    }
}

//================================================================================================
// Reading
//================================================================================================

TEST(stream, short_lines_are_read_many_at_once)
{
    enum { LINES = 10000 };
    static char text[LINES * 12];
    netio_framing f = netio_framing_line(100);
    netio_decoder d;
    netio_frame frame;
    memory m;
    netio_stream st = memory_open(&m);
    size_t len = 0;
    for (int i = 0; i < LINES; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "line %d\n", i);
    CHECK_OK(netio_stream_send_all(&st, text, len, NULL, 0));
    CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
    for (int i = 0; i < LINES; i++) {
        char want[16];
        int n = snprintf(want, sizeof want, "line %d", i);
        CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
        CHECK_EQ(n, frame.len);
        CHECK_MEM(want, frame.data, frame.len);
    }
    CHECK(m.recvs < 100);
    CHECK_ERR(NETIO_EAGAIN, netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_EQ(0, d.cap); // private: an idle decoder holds no memory
    netio_decoder_free(&d);
    netio_queue_destroy(m.queue);
}

TEST(stream, one_system_call_fetches_many_lines)
{
    netio_socket a, b;
    netio_stream st;
    netio_decoder d;
    netio_frame frame;
    long before;
    test_tcp_pair(&a, &b);
    st = netio_stream_from_socket(b);
    CHECK_OK(netio_decoder_init(&d, netio_framing_line(0), NULL, 0));
    CHECK_OK(netio_send_all(a, "a\nb\nc\nd\ne\n", 10, NULL, 1000));
    CHECK_ERR(NETIO_EV_READ, netio_wait(b, NETIO_EV_READ, 5000));
    before = test_ops(NETIO_OP_RECV);
    for (int i = 0; i < 5; i++) CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 5000));
    CHECK_EQ(1, test_ops(NETIO_OP_RECV) - before);
    netio_decoder_free(&d);
    CHECK_OK(netio_stream_close(&st));
    CHECK_OK(netio_close(&a));
}

// Lines, then so many bytes exactly, a look at what is there, bytes thrown away, lines again.
TEST(stream, framing_changes_between_frames_and_nothing_is_lost)
{
    netio_framing raw;
    netio_decoder d;
    netio_frame frame;
    netio_buf rest[2];
    memory m;
    netio_stream st = memory_open(&m);
    memset(&raw, 0, sizeof raw);
    CHECK_OK(netio_stream_send_all(&st, "SIZE 5\r\nhellodrop this\nend\n", 27, NULL, 0));
    CHECK_OK(netio_decoder_init(&d, netio_framing_line(100), NULL, 0));
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_MEM("SIZE 5", frame.data, frame.len);
    CHECK_OK(netio_decoder_set_framing(&d, netio_framing_fixed(5)));
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_MEM("hello", frame.data, frame.len);
    CHECK_EQ(1, netio_decoder_rest(&d, rest));
    CHECK_MEM("drop this\nend\n", rest[0].data, rest[0].len);
    raw.max = 5;
    CHECK_OK(netio_decoder_set_framing(&d, raw));
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_EQ(5, frame.len);
    CHECK_OK(netio_decoder_set_framing(&d, netio_framing_line(100)));
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_MEM("this", frame.data, frame.len);
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_MEM("end", frame.data, frame.len);
    CHECK_EQ(23, frame.offset);
    CHECK_EQ(1, m.recvs);
    netio_decoder_free(&d);
    netio_queue_destroy(m.queue);
}

enum { MUCH = 10 << 20 };

static void send_much(void *arg)
{
    static char zeros[1 << 16];
    netio_socket s = *(netio_socket *)arg;
    for (int i = 0; i < MUCH; i += (int)sizeof zeros)
        if (netio_send_all(s, zeros, sizeof zeros, NULL, 20000) < 0) return;
    netio_send_all(s, "done\n", 5, NULL, 20000);
}

TEST(stream, much_is_thrown_away_in_constant_memory)
{
    netio_socket a, b;
    netio_stream st;
    netio_framing raw;
    netio_decoder d;
    netio_frame frame;
    test_thread t;
    size_t left = MUCH;
    test_tcp_pair(&a, &b);
    st = netio_stream_from_socket(b);
    test_thread_start(&t, send_much, &a);
    memset(&raw, 0, sizeof raw);
    CHECK_OK(netio_decoder_init(&d, raw, NULL, 0));
    while (left > 0) {
        raw.max = left;
        CHECK_OK(netio_decoder_set_framing(&d, raw));
        CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 20000));
        CHECK(d.cap <= 1 << 16); // private: memory is what this is about
        left -= frame.len;
    }
    CHECK_OK(netio_decoder_set_framing(&d, netio_framing_line(0)));
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 20000));
    CHECK_MEM("done", frame.data, 4);
    test_thread_join(&t);
    netio_decoder_free(&d);
    CHECK_OK(netio_stream_close(&st));
    CHECK_OK(netio_close(&a));
}

TEST(stream, line_over_max_leaves_a_defined_position)
{
    netio_decoder d;
    netio_frame frame;
    netio_buf rest[2];
    uint64_t at;
    memory m;
    netio_stream st = memory_open(&m);
    CHECK_OK(netio_stream_send_all(&st, "ok\n0123456789abc\n", 17, NULL, 0));
    CHECK_OK(netio_decoder_init(&d, netio_framing_line(8), NULL, 0));
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_ERR(NETIO_EMSGSIZE, netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_ERR(NETIO_EMSGSIZE, netio_stream_read_frame(&st, &d, &frame, 0));
    netio_decoder_blame(&d, &at, NULL);
    CHECK_EQ(3, at);
    CHECK_EQ(1, netio_decoder_rest(&d, rest));
    CHECK_MEM("0123456789abc\n", rest[0].data, rest[0].len);
    netio_decoder_free(&d);
    netio_queue_destroy(m.queue);
}

TEST(stream, time_that_runs_out_loses_nothing)
{
    netio_socket a, b;
    netio_stream st;
    netio_decoder d;
    netio_frame frame;
    uint64_t begin;
    test_tcp_pair(&a, &b);
    st = netio_stream_from_socket(b);
    CHECK_OK(netio_decoder_init(&d, netio_framing_line(0), NULL, 0));
    CHECK_ERR(NETIO_EAGAIN, netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_OK(netio_send_all(a, "hel", 3, NULL, 1000));
    begin = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_stream_read_frame(&st, &d, &frame, 60));
    CHECK_BETWEEN(59, 3000, test_ms() - begin);
    CHECK_OK(netio_send_all(a, "lo\n", 3, NULL, 1000));
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 5000));
    CHECK_EQ(5, frame.len);
    CHECK_MEM("hello", frame.data, 5);
    netio_decoder_free(&d);
    CHECK_OK(netio_stream_close(&st));
    CHECK_OK(netio_close(&a));
}

static void drip(void *arg)
{
    for (int i = 0; i < 40; i++) {
        if (netio_send(*(netio_socket *)arg, "x", 1, 1000) < 0) return;
        test_sleep_ms(10);
    }
}

// A peer that sends a byte now and then does not move the deadline.
TEST(stream, dripping_peer_does_not_extend_the_time)
{
    netio_socket a, b;
    netio_stream st;
    netio_decoder d;
    netio_frame frame;
    test_thread t;
    uint64_t begin;
    char buf[100];
    size_t done = 0;
    test_tcp_pair(&a, &b);
    st = netio_stream_from_socket(b);
    CHECK_OK(netio_decoder_init(&d, netio_framing_line(0), NULL, 0));
    test_thread_start(&t, drip, &a);
    begin = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_stream_read_frame(&st, &d, &frame, 100));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_stream_recv_exact(&st, buf, sizeof buf, &done, 100));
    CHECK_BETWEEN(199, 5000, test_ms() - begin);
    CHECK(done < sizeof buf);
    test_thread_join(&t);
    netio_decoder_free(&d);
    CHECK_OK(netio_stream_close(&st));
    CHECK_OK(netio_close(&a));
}

TEST(stream, end_between_frames_and_inside_one_differ)
{
    for (int inside = 0; inside < 2; inside++) {
        netio_socket a, b;
        netio_stream st;
        netio_decoder d;
        netio_frame frame;
        test_tcp_pair(&a, &b);
        st = netio_stream_from_socket(b);
        CHECK_OK(netio_send_all(a, "\0\0\0\1x\0\0\0\2y", inside ? 10 : 5, NULL, 1000));
        CHECK_OK(netio_shutdown(a, NETIO_SHUT_WRITE));
        CHECK_OK(netio_decoder_init(&d, netio_framing_length(4, 100), NULL, 0));
        CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 5000));
        CHECK_ERR(inside ? NETIO_ETRUNCATED : NETIO_EOF,
                  netio_stream_read_frame(&st, &d, &frame, 5000));
        netio_decoder_free(&d);
        CHECK_OK(netio_stream_close(&st));
        CHECK_OK(netio_close(&a));
    }
}

TEST(stream, buffer_of_the_caller_is_enough_or_named)
{
    char buf[16];
    netio_decoder d;
    netio_frame frame;
    memory m;
    netio_stream st = memory_open(&m);
    long allocs;
    CHECK_OK(netio_stream_send_all(&st, "0123456789abcde\nxx\n0123456789abcdef\n", 36, NULL, 0));
    allocs = test_allocs();
    CHECK_OK(netio_decoder_init(&d, netio_framing_line(1000), buf, sizeof buf));
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_EQ(15, frame.len);
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_EQ(2, frame.len);
    CHECK_ERR(NETIO_ENOBUFS, netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_EQ(allocs, test_allocs());
    netio_decoder_free(&d);
    netio_queue_destroy(m.queue);
}

// One frame far larger than what is read at once; memory follows what came, up to the frame.
TEST(stream, large_frame_grows_as_it_comes)
{
    enum { LARGE = 300000 };
    static char data[LARGE];
    netio_framing f = netio_framing_length(4, LARGE);
    netio_decoder d;
    netio_frame frame = frame_of(data, LARGE);
    memory m;
    netio_stream st = memory_open(&m);
    test_fill(data, sizeof data, 9);
    CHECK_OK(netio_stream_write_frame(&st, &f, &frame, 0));
    CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
    CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_EQ(LARGE, frame.len);
    CHECK_MEM(data, frame.data, LARGE);
    CHECK(d.cap <= LARGE + 4 + (1 << 15));
    CHECK(m.recvs < 12);
    netio_decoder_free(&d);
    netio_queue_destroy(m.queue);
}

//================================================================================================
// Writing
//================================================================================================

TEST(stream, frame_leaves_in_one_vectored_send)
{
    netio_socket a, b;
    netio_stream st;
    netio_framing f = netio_framing_netstring(1000);
    netio_frame frame = frame_of(payload(500), 500);
    char buf[600];
    test_tcp_pair(&a, &b);
    st = netio_stream_from_socket(a);
    for (int i = 1; i <= 3; i++) {
        CHECK_OK(netio_stream_write_frame(&st, &f, &frame, 5000));
        CHECK_EQ(i, test_ops(NETIO_OP_SEND));
        CHECK_OK(netio_recv_exact(b, buf, 505, NULL, 5000));
        CHECK_MEM("500:", buf, 4);
        CHECK_MEM(payload(500), buf + 4, 500);
        CHECK_EQ(',', buf[504]);
    }
    CHECK_OK(netio_stream_close(&st));
    CHECK_OK(netio_close(&b));
}

TEST(stream, send_and_receive_exactly_say_how_far_they_got)
{
    char buf[16];
    size_t done = 99;
    memory m;
    netio_stream st = memory_open(&m);
    m.room = 10;
    m.step = 3;
    CHECK_ERR(NETIO_EAGAIN, netio_stream_send_all(&st, "0123456789abcdef", 16, &done, 0));
    CHECK_EQ(10, done);
    CHECK_OK(netio_stream_recv_exact(&st, buf, 8, &done, 0));
    CHECK_EQ(8, done);
    CHECK_MEM("01234567", buf, 8);
    CHECK_ERR(2, netio_stream_recv(&st, buf, sizeof buf, 0));
    CHECK_OK(netio_stream_send_all(&st, buf, 0, &done, 0));
    CHECK_EQ(0, done);
    m.room = 3;
    CHECK_OK(netio_stream_send_all(&st, "end", 3, NULL, 0));
    CHECK_OK(netio_stream_shutdown(&st, 0));
    CHECK_ERR(NETIO_ETRUNCATED, netio_stream_recv_exact(&st, buf, 8, &done, 0));
    CHECK_EQ(3, done);
    CHECK_ERR(NETIO_EOF, netio_stream_recv_exact(&st, buf, 8, &done, 0));
    CHECK_EQ(0, done);
    netio_queue_destroy(m.queue);
}

TEST(stream, missing_calls_are_not_supported_and_idle_ones_do_not_spin)
{
    static const netio_stream_ops none = {NULL, NULL, NULL, NULL};
    netio_framing f = netio_framing_line(10);
    netio_frame frame = frame_of("x", 1);
    netio_decoder d;
    netio_stream st;
    memory m;
    char c;
    st.ops = &none;
    st.self = NULL;
    st.socket = NETIO_INVALID_SOCKET;
    CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_stream_recv(&st, &c, 1, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_stream_recv_exact(&st, &c, 1, NULL, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_stream_send_all(&st, &c, 1, NULL, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_stream_shutdown(&st, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_stream_read_frame(&st, &d, &frame, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_stream_write_frame(&st, &f, &frame, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_stream_close(&st));

    CHECK_ERR(NETIO_EBADF, netio_stream_recv(&st, &c, 1, 0)); // closed
    CHECK_ERR(NETIO_EBADF, netio_stream_send_all(&st, &c, 1, NULL, 0));
    CHECK_ERR(NETIO_EBADF, netio_stream_shutdown(&st, 0));
    CHECK_ERR(NETIO_EBADF, netio_stream_close(&st));

    st = memory_open(&m);
    m.idle = true;
    CHECK_ERR(NETIO_EIO, netio_stream_recv_exact(&st, &c, 1, NULL, -1));
    CHECK_ERR(NETIO_EIO, netio_stream_send_all(&st, &c, 1, NULL, -1));
    netio_queue_destroy(m.queue);
    netio_decoder_free(&d);
}

TEST(stream, allocation_that_fails_is_named_and_can_be_tried_again)
{
    netio_framing f = netio_framing_cobs(1000);
    for (long n = 1; n <= 2; n++) {
        netio_frame frame = frame_of(payload(900), 900);
        netio_decoder d;
        memory m;
        netio_stream st = memory_open(&m);
        test_alloc_fail_at(1);
        CHECK_ERR(NETIO_ENOMEM, netio_stream_write_frame(&st, &f, &frame, 0));
        CHECK_EQ(0, netio_queue_len(m.queue)); // nothing was sent
        CHECK_OK(netio_stream_write_frame(&st, &f, &frame, 0));
        m.step = n == 1 ? 0 : 10;
        CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
        test_alloc_fail_at(1);
        CHECK_ERR(NETIO_ENOMEM, netio_stream_read_frame(&st, &d, &frame, 0));
        CHECK_OK(netio_stream_read_frame(&st, &d, &frame, 0));
        CHECK_EQ(900, frame.len);
        netio_decoder_free(&d);
        netio_queue_destroy(m.queue);
    }
}

//================================================================================================
// The gathering writer
//================================================================================================

static netio_writer writer_of(netio_stream *st, uint8_t *buf, size_t cap, int hold_ms)
{
    netio_writer w;
    memset(&w, 0, sizeof w);
    w.stream = st;
    w.buf = buf;
    w.cap = cap;
    w.hold_ms = hold_ms;
    return w;
}

static void check_received(memory *m, const char *want, size_t len)
{
    CHECK_EQ(len, netio_queue_len(m->queue));
    while (len > 0) {
        netio_buf front = netio_queue_front(m->queue);
        CHECK_MEM(want, front.data, front.len);
        want += front.len;
        len -= front.len;
        netio_queue_drop(m->queue, front.len);
    }
}

TEST(writer, thousand_writes_and_a_flush_are_few_sends)
{
    uint8_t buf[4096];
    char want[10000];
    memory m;
    netio_stream st = memory_open(&m);
    netio_writer w = writer_of(&st, buf, sizeof buf, 0);
    for (int i = 0; i < 1000; i++) {
        char word[24];
        snprintf(word, sizeof word, "write %04d", i);
        memcpy(want + i * 10, word, 10);
        CHECK_OK(netio_writer_write(&w, want + i * 10, 10, 0));
        CHECK_EQ(10, w.done);
        if (i < 400) CHECK_EQ(0, m.sends); // nothing before a flush or a full buffer
    }
    CHECK_OK(netio_writer_flush(&w, 0));
    CHECK_OK(netio_writer_flush(&w, 0));
    CHECK_BETWEEN(3, 4, m.sends);
    check_received(&m, want, 10000);
    netio_queue_destroy(m.queue);
}

TEST(writer, twenty_halves_of_a_kilobyte_are_three_sends)
{
    uint8_t buf[4096];
    memory m;
    netio_stream st = memory_open(&m);
    netio_writer w = writer_of(&st, buf, sizeof buf, 500);
    for (int i = 0; i < 20; i++) CHECK_OK(netio_writer_write(&w, payload(512), 512, 0));
    CHECK_OK(netio_writer_flush(&w, 0));
    CHECK(m.sends <= 3);
    CHECK_EQ(20 * 512, netio_queue_len(m.queue));
    netio_queue_destroy(m.queue);
}

TEST(writer, item_larger_than_the_buffer_goes_through_in_order)
{
    uint8_t buf[64];
    char want[3000];
    memory m;
    netio_stream st = memory_open(&m);
    netio_writer w = writer_of(&st, buf, sizeof buf, 0);
    memcpy(want, "before", 6);
    memcpy(want + 6, payload(2000), 2000);
    memcpy(want + 2006, "after", 5);
    CHECK_OK(netio_writer_write(&w, "before", 6, 0));
    CHECK_OK(netio_writer_write(&w, payload(2000), 2000, 0));
    CHECK_EQ(2000, w.done);
    CHECK_EQ(1, m.sends); // what waited and the item together
    CHECK_OK(netio_writer_write(&w, "after", 5, 0));
    CHECK_OK(netio_writer_flush(&w, 0));
    check_received(&m, want, 2011);
    netio_queue_destroy(m.queue);
}

TEST(writer, what_waited_long_enough_leaves_with_the_next_write)
{
    uint8_t buf[64];
    memory m;
    netio_stream st = memory_open(&m);
    netio_writer w = writer_of(&st, buf, sizeof buf, 60000);
    CHECK_EQ(-1, netio_writer_due(&w));
    CHECK_OK(netio_writer_write(&w, "a", 1, 0));
    CHECK_BETWEEN(30000, 60000, netio_writer_due(&w));
    CHECK_OK(netio_writer_write(&w, "b", 1, 0));
    CHECK_EQ(0, m.sends);
    w.since_ms -= 60000; // instead of waiting
    CHECK_EQ(0, netio_writer_due(&w));
    CHECK_OK(netio_writer_write(&w, "c", 1, 0));
    CHECK_EQ(1, m.sends);
    check_received(&m, "abc", 3);
    CHECK_EQ(-1, netio_writer_due(&w));
    w.hold_ms = 0; // then only a flush or a full buffer sends
    CHECK_OK(netio_writer_write(&w, "d", 1, 0));
    CHECK_EQ(-1, netio_writer_due(&w));
    CHECK_EQ(1, m.sends);
    netio_queue_destroy(m.queue);
}

TEST(writer, stalled_peer_is_named_and_nothing_is_lost_or_sent_twice)
{
    uint8_t buf[8];
    char want[64] = "";
    size_t len = 0;
    memory m;
    netio_stream st = memory_open(&m);
    netio_writer w = writer_of(&st, buf, sizeof buf, 0);
    m.room = 5;
    for (int i = 0; i < 12; i++) {
        const char *word = i % 3 == 2 ? "0123456789" : "abc";
        size_t size = strlen(word), at = 0;
        while (at < size) {
            int err = netio_writer_write(&w, word + at, size - at, 0);
            CHECK(err == 0 || err == NETIO_EAGAIN);
            CHECK(err < 0 || w.done == size - at);
            at += w.done;
            if (err < 0) m.room = 2; // the peer reads a little
        }
        memcpy(want + len, word, size);
        len += size;
    }
    m.room = 100;
    CHECK_OK(netio_writer_flush(&w, 0));
    check_received(&m, want, len);
    netio_queue_destroy(m.queue);
}

TEST(writer, closed_stream_is_an_error_and_keeps_what_waited)
{
    uint8_t buf[8];
    memory m;
    netio_stream st = memory_open(&m);
    netio_writer w = writer_of(&st, buf, sizeof buf, 0);
    CHECK_OK(netio_writer_write(&w, "abc", 3, 0));
    CHECK_OK(netio_stream_close(&st));
    CHECK_ERR(NETIO_EBADF, netio_writer_flush(&w, 0));
    CHECK_EQ(3, w.len);
    CHECK_ERR(NETIO_EBADF, netio_writer_write(&w, "0123456789", 10, 0));
    CHECK_EQ(0, w.done);
    netio_queue_destroy(m.queue);
}

TEST_MAIN("stream_framed", T(stream, tcp_carries_every_framing),
          T(stream, pair_carries_every_framing), T(stream, table_of_ones_own_carries_every_framing),
          T(stream, short_lines_are_read_many_at_once),
          T(stream, one_system_call_fetches_many_lines),
          T(stream, framing_changes_between_frames_and_nothing_is_lost),
          T(stream, much_is_thrown_away_in_constant_memory),
          T(stream, line_over_max_leaves_a_defined_position),
          T(stream, time_that_runs_out_loses_nothing),
          T(stream, dripping_peer_does_not_extend_the_time),
          T(stream, end_between_frames_and_inside_one_differ),
          T(stream, buffer_of_the_caller_is_enough_or_named),
          T(stream, large_frame_grows_as_it_comes), T(stream, frame_leaves_in_one_vectored_send),
          T(stream, send_and_receive_exactly_say_how_far_they_got),
          T(stream, missing_calls_are_not_supported_and_idle_ones_do_not_spin),
          T(stream, allocation_that_fails_is_named_and_can_be_tried_again),
          T(writer, thousand_writes_and_a_flush_are_few_sends),
          T(writer, twenty_halves_of_a_kilobyte_are_three_sends),
          T(writer, item_larger_than_the_buffer_goes_through_in_order),
          T(writer, what_waited_long_enough_leaves_with_the_next_write),
          T(writer, stalled_peer_is_named_and_nothing_is_lost_or_sent_twice),
          T(writer, closed_stream_is_an_error_and_keeps_what_waited))
