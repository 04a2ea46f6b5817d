// WebSocket, RFC 6455: frames in both roles however they are cut, masking, messages in fragments
// with control frames between them, UTF-8, closing, limits, and the opening handshake.
#include "cuts.h"

//================================================================================================
// Tools
//================================================================================================

static cuts run;
static unsigned char room[8192]; // for decoders with memory of the caller's

// Bytes from hexadecimal digits; blanks are passed over. Returns how many.
static size_t hex(unsigned char *out, size_t cap, const char *text)
{
    size_t n = 0;
    int half = -1;
    for (; *text; text++) {
        int digit = *text >= '0' && *text <= '9'   ? *text - '0'
                    : *text >= 'a' && *text <= 'f' ? *text - 'a' + 10
                                                   : -1;
        if (digit < 0) continue;
        if (half < 0) {
            half = digit;
            continue;
        }
        if (n == cap) abort();
        out[n++] = (unsigned char)(half * 16 + digit);
        half = -1;
    }
    return n;
}

static void start(bool client, bool fragments, size_t max)
{
    memset(&run, 0, sizeof run);
    run.framing = netio_framing_websocket(client, max);
    run.framing.fragments = fragments;
    run.buf = room;
    run.cap = sizeof room;
    run.end = true;
}

// A frame by hand, so that the encoder under test is not its own judge.
static size_t frame(unsigned char *out, unsigned first, const void *data, size_t len,
                    const char *key)
{
    size_t n = 0, i;
    unsigned mask = key ? 0x80 : 0;
    out[n++] = (unsigned char)first;
    if (len < 126) {
        out[n++] = (unsigned char)(mask | len);
    } else if (len < 65536) {
        out[n++] = (unsigned char)(mask | 126);
        out[n++] = (unsigned char)(len >> 8);
        out[n++] = (unsigned char)(len & 255);
    } else {
        out[n++] = (unsigned char)(mask | 127);
        for (i = 8; i-- > 0;) out[n++] = (unsigned char)((unsigned long long)len >> 8 * i & 255);
    }
    for (i = 0; key && i < 4; i++) out[n++] = (unsigned char)key[i];
    for (i = 0; i < len; i++)
        out[n++] = (unsigned char)(((const unsigned char *)data)[i] ^ (key ? key[i % 4] : 0));
    return n;
}

// The first frame that comes out of `data`.
static void first_frame(netio_frame *out, netio_decoder *d, bool client, const void *data,
                        size_t len)
{
    CHECK_OK(netio_decoder_init(d, netio_framing_websocket(client, 0), NULL, 0));
    CHECK_OK(netio_decoder_feed(d, data, len));
    CHECK_ERR(1, netio_decoder_next(d, out));
}

//================================================================================================
// Frames
//================================================================================================

// RFC 6455 section 5.7.
TEST(websocket, frames_of_the_rfc_are_read)
{
    static const struct {
        const char *wire;
        bool client; // who reads
        unsigned type;
        const char *payload;
    } rows[] = {
        {"810548656c6c6f", true, NETIO_WS_TEXT, "Hello"},
        {"818537fa213d7f9f4d5158", false, NETIO_WS_TEXT, "Hello"},
        {"010348656c 80026c6f", true, NETIO_WS_TEXT, "Hello"},
        {"890548656c6c6f", true, NETIO_WS_PING, "Hello"},
        {"8a8537fa213d7f9f4d5158", false, NETIO_WS_PONG, "Hello"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned char wire[32];
        size_t len = hex(wire, sizeof wire, rows[i].wire);
        netio_decoder d;
        netio_frame f;
        first_frame(&f, &d, rows[i].client, wire, len);
        CHECK_EQ(rows[i].type, f.type);
        CHECK_EQ(5, f.len);
        CHECK_MEM(rows[i].payload, f.data, 5);
        CHECK(!f.more && !f.continues && f.offset == 0 && !f.header);
        CHECK_ERR(0, netio_decoder_next(&d, &f));
        netio_decoder_free(&d);
        start(rows[i].client, false, 0);
        cuts_all(&run, wire, len);
        CHECK_ERR(NETIO_EOF, run.err);
        CHECK_EQ(1, run.frames);
    }
}

TEST(websocket, frames_of_the_rfc_are_written)
{
    static const struct {
        const char *wire;
        unsigned type;
        bool more, continues, masked;
        const char *payload;
    } rows[] = {
        {"810548656c6c6f", NETIO_WS_TEXT, false, false, false, "Hello"},
        {"818537fa213d7f9f4d5158", NETIO_WS_TEXT, false, false, true, "Hello"},
        {"010348656c", NETIO_WS_TEXT, true, false, false, "Hel"},
        {"80026c6f", NETIO_WS_TEXT, false, true, false, "lo"},
        {"000348656c", NETIO_WS_BINARY, true, true, false, "Hel"},
        {"890548656c6c6f", NETIO_WS_PING, false, false, false, "Hello"},
        {"8a8537fa213d7f9f4d5158", NETIO_WS_PONG, false, false, true, "Hello"},
        {"820548656c6c6f", 0, false, false, false, "Hello"}, // binary is the usual type
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned char want[32], got[32];
        static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
        size_t len = hex(want, sizeof want, rows[i].wire);
        netio_framing framing = netio_framing_websocket(rows[i].masked, 0);
        netio_frame f = {0};
        f.type = rows[i].type;
        f.more = rows[i].more;
        f.continues = rows[i].continues;
        f.data = (const uint8_t *)rows[i].payload;
        f.len = strlen(rows[i].payload);
        if (rows[i].masked) f.header = key;
        f.header_len = rows[i].masked ? 4 : 0;
        CHECK_EQ(len, netio_encode_into(got, sizeof got, &framing, &f));
        CHECK_MEM(want, got, len);
        CHECK_ERR(NETIO_ENOSPC, netio_encode_into(got, len - 1, &framing, &f));
        CHECK_EQ(len, netio_encode_into(got, len, &framing, &f));
    }
}

// Every length that takes another form, both ways, both roles.
TEST(websocket, lengths_around_every_form_round_trip)
{
    static unsigned char data[70000], wire[70100], mine[70100];
    static const size_t sizes[] = {0,    1,    2,     3,     4,     7,     8,    9,   63,
                                   64,   65,   124,   125,   126,   127,   128,  255, 256,
                                   4095, 4096, 65534, 65535, 65536, 65537, 70000};
    test_fill(data, sizeof data, 3);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int client = 0; client < 2; client++) {
            netio_framing framing = netio_framing_websocket(client, 0);
            netio_frame f = {0}, got;
            netio_decoder d;
            f.data = data;
            f.len = sizes[i];
            f.header = client ? (const uint8_t *)"\x01\xfe\x00\x80" : NULL;
            f.header_len = client ? 4 : 0;
            size_t n = frame(wire, 0x82, data, sizes[i], client ? "\x01\xfe\x00\x80" : NULL);
            CHECK_EQ(n, netio_encode_into(mine, sizeof mine, &framing, &f));
            CHECK_MEM(wire, mine, n);
            CHECK(n <= netio_encode_bound(&framing, sizes[i]));
            CHECK_OK(netio_decoder_init(&d, netio_framing_websocket(!client, 0), NULL, 0));
            for (size_t off = 0, piece; off < n; off += piece) {
                piece = i % 2 ? n : 1021; // whole, or in pieces
                if (piece > n - off) piece = n - off;
                CHECK_OK(netio_decoder_feed(&d, wire + off, piece));
                int r = netio_decoder_next(&d, &got);
                CHECK_ERR(off + piece == n, r);
            }
            CHECK_EQ(NETIO_WS_BINARY, got.type);
            CHECK_EQ(sizes[i], got.len);
            CHECK_MEM(data, got.data, got.len);
            netio_decoder_free(&d);
        }
    }
}

TEST(websocket, header_goes_around_the_payload_without_a_copy)
{
    netio_framing framing = netio_framing_websocket(false, 0);
    netio_envelope e;
    netio_frame f = {0};
    f.data = (const uint8_t *)"Hello";
    f.len = 5;
    f.type = NETIO_WS_TEXT;
    CHECK_OK(netio_encode(&e, &framing, &f));
    CHECK(e.head_len == 2 && e.tail_len == 0);
    CHECK_MEM("\x81\x05", e.head, 2);
    framing.type = NETIO_WS_TEXT; // what frames without a type are
    f.type = 0;
    CHECK_OK(netio_encode(&e, &framing, &f));
    CHECK_EQ(0x81, e.head[0]);
    framing.masked = true; // here the payload changes
    CHECK_ERR(NETIO_ENOTSUP, netio_encode(&e, &framing, &f));
}

TEST(websocket, encode_refuses_what_no_peer_would_take)
{
    static unsigned char data[126];
    netio_framing framing = netio_framing_websocket(false, 1000);
    netio_envelope e;
    static const struct {
        unsigned type;
        size_t len;
        bool more, continues;
        int err;
    } rows[] = {
        {NETIO_WS_PING, 125, false, false, 0},
        {NETIO_WS_PING, 126, false, false, NETIO_EMSGSIZE},
        {NETIO_WS_PONG, 126, false, false, NETIO_EMSGSIZE},
        {NETIO_WS_CLOSE, 126, false, false, NETIO_EMSGSIZE},
        {NETIO_WS_PING, 1, true, false, NETIO_EINVAL}, // section 5.5: never in fragments
        {NETIO_WS_PING, 1, false, true, NETIO_EINVAL},
        {NETIO_WS_CLOSE, 0, false, false, 0},
        {NETIO_WS_CLOSE, 1, false, false, NETIO_EINVAL}, // half a code
        {NETIO_WS_CLOSE, 2, false, false, NETIO_EINVAL}, // code 0
        {3, 1, false, false, NETIO_EINVAL},
        {7, 1, false, false, NETIO_EINVAL},
        {11, 1, false, false, NETIO_EINVAL},
        {15, 1, false, false, NETIO_EINVAL},
        {16, 1, false, false, NETIO_EINVAL},
        {0x101, 1, false, false, NETIO_EINVAL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_frame f = {0};
        f.data = data;
        f.len = rows[i].len;
        f.type = rows[i].type;
        f.more = rows[i].more;
        f.continues = rows[i].continues;
        CHECK_ERR(rows[i].err, netio_encode(&e, &framing, &f));
    }
    netio_frame f = {0};
    f.data = room;
    f.len = 1000;
    CHECK_OK(netio_encode(&e, &framing, &f));
    f.len = 1001;
    CHECK_ERR(NETIO_EMSGSIZE, netio_encode(&e, &framing, &f));
    framing.masked = true;
    f.len = 1;
    f.header = room;
    f.header_len = 3; // no key
    CHECK_ERR(NETIO_EINVAL, netio_encode_into(data, sizeof data, &framing, &f));
}

// What is wrong shows at its byte: `at` counts the bytes that had to be there.
TEST(websocket, malformed_frames_fail_at_their_byte)
{
    static const struct {
        const char *wire;
        bool client;
        size_t at;
        int frames; // handed out before
        int err;
    } rows[] = {
        // section 5.2: reserved bits and opcodes
        {"c10548656c6c6f", true, 1, 0, NETIO_EPROTO},
        {"a10548656c6c6f", true, 1, 0, NETIO_EPROTO},
        {"910548656c6c6f", true, 1, 0, NETIO_EPROTO},
        {"c90548656c6c6f", true, 1, 0, NETIO_EPROTO},
        {"8300", true, 1, 0, NETIO_EPROTO},
        {"8700", true, 1, 0, NETIO_EPROTO},
        {"8b00", true, 1, 0, NETIO_EPROTO},
        {"8f00", true, 1, 0, NETIO_EPROTO},
        // section 5.1: who masks
        {"810548656c6c6f", false, 2, 0, NETIO_EPROTO},
        {"818537fa213d7f9f4d5158", true, 2, 0, NETIO_EPROTO},
        {"8900", false, 2, 0, NETIO_EPROTO},
        {"898000000000", true, 2, 0, NETIO_EPROTO},
        // section 5.2: lengths in more bytes than needed, or with the sign bit
        {"827e0000", true, 4, 0, NETIO_EPROTO},
        {"827e007d", true, 4, 0, NETIO_EPROTO},
        {"827f0000000000000000", true, 8, 0, NETIO_EPROTO},
        {"827f000000000000ffff", true, 8, 0, NETIO_EPROTO},
        {"827f8000000000000000", true, 3, 0, NETIO_EPROTO},
        {"827fffffffffffffffff", true, 3, 0, NETIO_EPROTO},
        {"82fe007d00000000", false, 4, 0, NETIO_EPROTO},
        // section 5.5: control frames are short and whole
        {"897e007e", true, 2, 0, NETIO_EPROTO},
        {"897f000000000000007e", true, 2, 0, NETIO_EPROTO},
        {"0900", true, 1, 0, NETIO_EPROTO},
        {"0a00", true, 1, 0, NETIO_EPROTO},
        {"0800", true, 1, 0, NETIO_EPROTO},
        // section 5.4: fragments
        {"8000", true, 1, 0, NETIO_EPROTO},
        {"0000", true, 1, 0, NETIO_EPROTO},
        {"0100 8100", true, 3, 0, NETIO_EPROTO},
        {"0200 8900 8200", true, 5, 1, NETIO_EPROTO},
        {"0100 8000 8000", true, 5, 1, NETIO_EPROTO},
        {"0100 0000 0100", true, 5, 0, NETIO_EPROTO},
        // section 5.5.1, 7.4: closing
        {"880103", true, 2, 0, NETIO_EPROTO},
        {"88020000", true, 4, 0, NETIO_EPROTO},
        {"880203e7", true, 4, 0, NETIO_EPROTO},
        {"880203ec", true, 4, 0, NETIO_EPROTO},
        {"880203ed", true, 4, 0, NETIO_EPROTO},
        {"880203ee", true, 4, 0, NETIO_EPROTO},
        {"880203f7", true, 4, 0, NETIO_EPROTO},
        {"88020bb7", true, 4, 0, NETIO_EPROTO},
        {"88021388", true, 4, 0, NETIO_EPROTO},
        {"8802ffff", true, 4, 0, NETIO_EPROTO},
        {"880503e841ff42", true, 6, 0, NETIO_EILSEQ},
        {"880403e841c3", true, 6, 0, NETIO_EILSEQ},
        {"8885 00000000 03e841ff42", false, 10, 0, NETIO_EILSEQ},
        // section 8.1: text that is not UTF-8
        {"810448ff4c4c", true, 4, 0, NETIO_EILSEQ},
        {"8102c3c3", true, 4, 0, NETIO_EILSEQ},
        {"8102c080", true, 3, 0, NETIO_EILSEQ},
        {"8103eda080", true, 4, 0, NETIO_EILSEQ},
        {"8104f4908080", true, 4, 0, NETIO_EILSEQ},
        {"8101c3", true, 3, 0, NETIO_EILSEQ},
        {"0101c3 8000", true, 5, 0, NETIO_EILSEQ},
        {"0102cebe 0001cf 8900 800141", true, 12, 1, NETIO_EILSEQ},
        {"8184 00000000 48ff4c4c", false, 8, 0, NETIO_EILSEQ},
        {"8184 01020304 49fd4f48", false, 8, 0, NETIO_EILSEQ},
        // limits: 20 bytes here
        {"8215", true, 2, 0, NETIO_EMSGSIZE},
        {"827e0100", true, 4, 0, NETIO_EMSGSIZE},
        {"827f7fffffffffffffff", true, 10, 0, NETIO_EMSGSIZE},
        {"82ff7fffffffffffffff 00000000", false, 14, 0, NETIO_EMSGSIZE},
        {"020a 30313233343536373839 000a 30313233343536373839 8001", true, 26, 0, NETIO_EMSGSIZE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned char wire[128];
        // A good ping first: it must come out whatever follows.
        size_t begin = rows[i].client ? 2 : 6;
        size_t len = begin + hex(wire + begin, sizeof wire - begin, rows[i].wire);
        memcpy(wire, rows[i].client ? "\x89\x00" : "\x89\x80\x01\x02\x03\x04", begin);
        for (int fragments = 0; fragments < 2; fragments++) {
            start(rows[i].client, fragments, 20);
            cuts_all(&run, wire, len);
            if (fragments && rows[i].err == NETIO_EMSGSIZE && rows[i].at == 26) {
                CHECK_ERR(NETIO_ETRUNCATED, run.err); // no fragment is over the limit
                continue;
            }
            if (run.err != rows[i].err)
                test_fail(__FILE__, __LINE__, "%s: %s", netio_errname(run.err), rows[i].wire);
            if (!fragments) CHECK_EQ(1 + rows[i].frames, run.frames);
            if (cuts_error_at(&run, wire, len) != begin + rows[i].at)
                test_fail(__FILE__, __LINE__, "not at %d: %s", (int)rows[i].at, rows[i].wire);
        }
    }
}

TEST(websocket, message_of_max_bytes_passes_and_of_one_more_not)
{
    unsigned char wire[400], data[201];
    test_fill(data, sizeof data, 1);
    for (size_t size = 199; size <= 201; size++) {
        for (int masked = 0; masked < 2; masked++) {
            const char *key = masked ? "abcd" : NULL;
            size_t len = frame(wire, 0x82, data, size, key);
            start(!masked, false, 200);
            cuts_all(&run, wire, len);
            CHECK_ERR(size > 200 ? NETIO_EMSGSIZE : NETIO_EOF, run.err);
            if (size > 200) CHECK(strstr(run.log, "at 0 size 201") != NULL);
            // The same in three fragments: the sum counts, and the one that passes it is blamed.
            len = frame(wire, 0x02, data, 100, key);
            len += frame(wire + len, 0x00, data, 99, key);
            len += frame(wire + len, 0x80, data, size - 199, key);
            cuts_all(&run, wire, len);
            CHECK_ERR(size > 200 ? NETIO_EMSGSIZE : NETIO_EOF, run.err);
            if (size > 200)
                CHECK(strstr(run.log, masked ? "at 211 size 201" : "at 203 size 201") != NULL);
        }
    }
}

TEST(websocket, buffer_of_the_callers_is_the_limit_of_what_is_gathered)
{
    unsigned char wire[200], data[100];
    size_t len;
    test_fill(data, sizeof data, 1);
    len = frame(wire, 0x82, data, 100, "abcd");
    for (size_t cap = 98; cap <= 101; cap++) {
        start(false, false, 1000);
        run.cap = cap;
        cuts_run(&run, wire, len, 0, 0);
        CHECK_ERR(cap < 100 ? NETIO_ENOBUFS : NETIO_EOF, run.err);
    }
    start(true, false, 1000); // not masked and whole: no memory at all
    run.cap = 1;
    cuts_run(&run, wire, frame(wire, 0x82, data, 100, NULL), 0, 0);
    CHECK_ERR(NETIO_EOF, run.err);
}

TEST(websocket, claims_of_length_take_no_memory)
{
    static const char *const claims[] = {"827f7fffffffffffffff", "82ff7fffffffffffffff00000000",
                                         "827f0000000000100001"};
    for (size_t i = 0; i < 3; i++) {
        unsigned char wire[16];
        size_t len = hex(wire, sizeof wire, claims[i]);
        netio_decoder d;
        netio_frame f;
        long allocs = test_allocs();
        CHECK_OK(netio_decoder_init(&d, netio_framing_websocket(i != 1, 0), NULL, 0));
        CHECK_OK(netio_decoder_feed(&d, wire, len));
        CHECK_ERR(NETIO_EMSGSIZE, netio_decoder_next(&d, &f));
        CHECK_EQ(allocs, test_allocs());
        netio_decoder_free(&d);
    }
    // 1 MiB announced within the limit, four bytes there: memory for those.
    unsigned char wire[18];
    size_t len = hex(wire, sizeof wire, "82ff00000000001000000000000041424344");
    netio_decoder d;
    netio_frame f;
    CHECK_OK(netio_decoder_init(&d, netio_framing_websocket(false, 0), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, wire, len));
    CHECK_ERR(0, netio_decoder_next(&d, &f));
    CHECK_BETWEEN(4, 4096, d.cap);
    netio_decoder_free(&d);
}

TEST(websocket, frame_that_is_not_masked_is_handed_out_where_it_lies)
{
    unsigned char wire[64];
    size_t len = frame(wire, 0x81, "Hello", 5, NULL);
    netio_decoder d;
    netio_frame f;
    long allocs = test_allocs();
    len += frame(wire + len, 0x89, "ping", 4, NULL);
    CHECK_OK(netio_decoder_init(&d, netio_framing_websocket(true, 0), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, wire, len));
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK(f.data == wire + 2);
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK(f.data == wire + 9);
    CHECK_ERR(0, netio_decoder_next(&d, &f));
    CHECK_EQ(allocs, test_allocs());
    netio_decoder_free(&d);
}

TEST(websocket, decoder_between_messages_holds_no_memory)
{
    unsigned char wire[600], data[500];
    size_t len;
    netio_decoder d;
    netio_frame f;
    long blocks = test_blocks();
    test_fill(data, sizeof data, 1);
    len = frame(wire, 0x82, data, 500, "\x11\x22\x33\x44");
    CHECK_OK(netio_decoder_init(&d, netio_framing_websocket(false, 0), NULL, 0));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(netio_decoder_feed(&d, wire, len - 1));
        CHECK_ERR(0, netio_decoder_next(&d, &f));
        CHECK_EQ(blocks + 1, test_blocks());
        CHECK_OK(netio_decoder_feed(&d, wire + len - 1, 1));
        CHECK_ERR(1, netio_decoder_next(&d, &f));
        CHECK_MEM(data, f.data, 500);
        CHECK_ERR(0, netio_decoder_next(&d, &f));
        CHECK_EQ(blocks, test_blocks());
    }
    netio_decoder_free(&d);
}

// An allocation that fails loses nothing: the same call works when there is memory again.
TEST(websocket, decoder_without_memory_can_be_asked_again)
{
    unsigned char wire[1200], data[500];
    size_t len = 0;
    test_fill(data, sizeof data, 1);
    len += frame(wire + len, 0x02, data, 300, "abcd");
    len += frame(wire + len, 0x89, "x", 1, "efgh");
    len += frame(wire + len, 0x80, data + 300, 200, "ijkl");
    for (size_t cut = 0; cut < len; cut += 7) {
        for (int fail = 1; fail < 5; fail++) {
            netio_decoder d;
            netio_frame f;
            int frames = 0, r;
            CHECK_OK(netio_decoder_init(&d, netio_framing_websocket(false, 0), NULL, 0));
            test_alloc_fail_at(fail);
            for (int part = 0; part < 2; part++) {
                CHECK_OK(netio_decoder_feed(&d, wire + (part ? cut : 0), part ? len - cut : cut));
                while ((r = netio_decoder_next(&d, &f)) > 0 || r == NETIO_ENOMEM) {
                    if (r < 0) continue;
                    frames++;
                    if (f.type == NETIO_WS_BINARY) CHECK_MEM(data, f.data, 500);
                }
                CHECK_ERR(0, r);
            }
            test_alloc_fail_at(0);
            CHECK_EQ(2, frames);
            netio_decoder_free(&d);
        }
    }
}

//================================================================================================
// Messages
//================================================================================================

TEST(websocket, messages_are_the_same_for_every_cut)
{
    unsigned char wire[512], data[200];
    test_fill(data, sizeof data, 9);
    for (int masked = 0; masked < 2; masked++) {
        size_t len = 0;
        const char *a = masked ? "\x12\x34\x56\x78" : NULL, *b = masked ? "\xff\x00\xff\x00" : NULL;
        len += frame(wire + len, 0x81, "caf\xc3\xa9", 5, a);
        len += frame(wire + len, 0x02, data, 70, a);
        len += frame(wire + len, 0x89, "in between", 10, b);
        len += frame(wire + len, 0x00, data + 70, 1, b);
        len += frame(wire + len, 0x00, NULL, 0, b);
        len += frame(wire + len, 0x8A, NULL, 0, a);
        len += frame(wire + len, 0x80, data + 71, 129, a);
        len += frame(wire + len, 0x82, NULL, 0, b);
        len += frame(wire + len, 0x01, NULL, 0, b);
        len += frame(wire + len, 0x80, NULL, 0, b);
        len += frame(wire + len, 0x88,
                     "\x03\xe8"
                     "bye",
                     5, b);
        start(!masked, false, 0);
        cuts_all(&run, wire, len);
        char want[1024];
        int head = masked ? 4 : 0;
        snprintf(want, sizeof want,
                 "[0 +5 %08x type 1 more 0 later 0]\n[%d +10 %08x type 9 more 0 later 0]\n"
                 "[%d +0 00000000 type 10 more 0 later 0]\n[%d +200 %08x type 2 more 0 later 0]\n"
                 "[%d +0 00000000 type 2 more 0 later 0]\n[%d +0 00000000 type 1 more 0 later 0]\n"
                 "[%d +5 %08x type 8 more 0 later 0]\nerror %d at %d size 0\n",
                 (unsigned)netio_crc32(0, "caf\xc3\xa9", 5), 7 + 72 + 2 * head,
                 (unsigned)netio_crc32(0, "in between", 10), 7 + 72 + 12 + 3 + 2 + 5 * head,
                 7 + head, (unsigned)netio_crc32(0, data, 200),
                 7 + 72 + 12 + 3 + 2 + 2 + 133 + 7 * head, 7 + 72 + 12 + 3 + 2 + 2 + 135 + 8 * head,
                 7 + 72 + 12 + 3 + 2 + 2 + 139 + 10 * head,
                 (unsigned)netio_crc32(0,
                                       "\x03\xe8"
                                       "bye",
                                       5),
                 -NETIO_EOF, (int)len);
        CHECK_STR(want, run.log);
    }
}

TEST(websocket, fragments_are_handed_out_as_they_come_if_asked)
{
    unsigned char wire[512], again[512];
    for (int masked = 0; masked < 2; masked++) {
        size_t len = 0, out = 0;
        const char *key = masked ? "\x12\x34\x56\x78" : NULL;
        // A character is cut by the frames' border.
        len += frame(wire + len, 0x01, "caf\xc3", 4, key);
        len += frame(wire + len, 0x89, "in between", 10, key);
        len += frame(wire + len, 0x00, NULL, 0, key);
        len += frame(wire + len, 0x00, "\xa9", 1, key);
        len += frame(wire + len, 0x80, "x", 1, key);
        len += frame(wire + len, 0x82, "whole", 5, key);
        start(!masked, true, 5);
        cuts_all(&run, wire, len);
        int h = masked ? 4 : 0;
        char want[1024];
        snprintf(want, sizeof want,
                 "[0 +4 %08x type 1 more 1 later 0]\n[%d +10 %08x type 9 more 0 later 0]\n"
                 "[%d +0 00000000 type 1 more 1 later 1]\n[%d +1 %08x type 1 more 1 later 1]\n"
                 "[%d +1 %08x type 1 more 0 later 1]\n[%d +5 %08x type 2 more 0 later 0]\n"
                 "error %d at %d size 0\n",
                 (unsigned)netio_crc32(0, "caf\xc3", 4), 6 + h,
                 (unsigned)netio_crc32(0, "in between", 10), 18 + 2 * h, 20 + 3 * h,
                 (unsigned)netio_crc32(0, "\xa9", 1), 23 + 4 * h, (unsigned)netio_crc32(0, "x", 1),
                 26 + 5 * h, (unsigned)netio_crc32(0, "whole", 5), -NETIO_EOF, (int)len);
        CHECK_STR(want, run.log);

        // What came out goes in again and gives the same bytes.
        netio_decoder d;
        netio_frame f;
        netio_framing in = netio_framing_websocket(!masked, 0), back;
        in.fragments = true;
        back = netio_framing_websocket(masked, 0);
        CHECK_OK(netio_decoder_init(&d, in, NULL, 0));
        CHECK_OK(netio_decoder_feed(&d, wire, len));
        while (netio_decoder_next(&d, &f) > 0) {
            f.header = (const uint8_t *)key;
            f.header_len = key ? 4 : 0;
            ptrdiff_t n = netio_encode_into(again + out, sizeof again - out, &back, &f);
            CHECK(n > 0);
            out += (size_t)n;
        }
        CHECK_EQ(len, out);
        CHECK_MEM(wire, again, len);
        netio_decoder_free(&d);
    }
}

TEST(websocket, text_may_be_cut_anywhere_in_a_character)
{
    static const char text[] = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf0\x9f\x98\x80";
    unsigned char wire[64];
    for (size_t cut = 0; cut <= sizeof text - 1; cut++) {
        size_t len = frame(wire, 0x01, text, cut, "abcd");
        len += frame(wire + len, 0x89, NULL, 0, "abcd");
        len += frame(wire + len, 0x80, text + cut, sizeof text - 1 - cut, "efgh");
        for (int fragments = 0; fragments < 2; fragments++) {
            start(false, fragments, 0);
            cuts_all(&run, wire, len);
            CHECK_ERR(NETIO_EOF, run.err);
            CHECK_EQ(fragments ? 3 : 2, run.frames);
        }
    }
}

TEST(websocket, binary_is_not_checked_for_utf8)
{
    unsigned char wire[16];
    start(true, false, 0);
    cuts_all(&run, wire, hex(wire, sizeof wire, "0202ffc3 8001c3"));
    CHECK_ERR(NETIO_EOF, run.err);
    CHECK_EQ(1, run.frames);
}

TEST(websocket, end_inside_a_message_is_truncated)
{
    unsigned char wire[64];
    size_t len = frame(wire, 0x01, "ab", 2, "abcd");
    len += frame(wire + len, 0x89, "x", 1, "abcd");
    len += frame(wire + len, 0x80, NULL, 0, "efgh");
    for (size_t n = 1; n < len; n++) {
        start(false, false, 0);
        cuts_all(&run, wire, n);
        CHECK_ERR(NETIO_ETRUNCATED, run.err);
    }
    start(true, false, 0); // an empty first fragment is part of a message, too
    cuts_all(&run, "\x01\x00", 2);
    CHECK_ERR(NETIO_ETRUNCATED, run.err);
    start(true, true, 0);
    cuts_all(&run, "\x01\x00", 2);
    CHECK_ERR(NETIO_ETRUNCATED, run.err);
}

//================================================================================================
// Masking
//================================================================================================

TEST(websocket, masking_is_right_for_every_length_and_place)
{
    unsigned char data[300], wire[400], out[400];
    netio_framing framing = netio_framing_websocket(true, 0);
    test_fill(data, sizeof data, 2);
    for (size_t len = 0; len <= 200; len++) {
        for (size_t shift = 0; shift < 9; shift++) {
            netio_frame f = {0};
            f.data = data + shift;
            f.len = len;
            f.header = (const uint8_t *)"\x01\x20\x03\xc0";
            f.header_len = 4;
            size_t want = frame(wire, 0x82, data + shift, len, "\x01\x20\x03\xc0");
            CHECK_EQ(want, netio_encode_into(out + shift, sizeof out - shift, &framing, &f));
            CHECK_MEM(wire, out + shift, want);
        }
    }
}

// RFC 6455 section 5.3: keys of a client cannot be told beforehand.
TEST(websocket, keys_are_fresh_for_every_frame)
{
    enum { N = 300 };
    unsigned char wire[16];
    static unsigned keys[N];
    unsigned ones = 0;
    netio_framing framing = netio_framing_websocket(true, 0);
    netio_frame f = {0};
    f.data = (const uint8_t *)"abcd";
    f.len = 4;
    for (int i = 0; i < N; i++) {
        CHECK_EQ(10, netio_encode_into(wire, sizeof wire, &framing, &f));
        keys[i] =
            (unsigned)wire[2] << 24 | (unsigned)wire[3] << 16 | (unsigned)wire[4] << 8 | wire[5];
        for (int k = 0; k < 4; k++) CHECK_EQ("abcd"[k], wire[6 + k] ^ wire[2 + k]);
        for (int bit = 0; bit < 32; bit++) ones += keys[i] >> bit & 1;
        for (int k = 0; k < i; k++) // that two of 300 are equal happens once in 100,000 runs
            if (keys[k] == keys[i]) test_fail(__FILE__, __LINE__, "key %d again at %d", k, i);
    }
    CHECK_BETWEEN(N * 16 - 400, N * 16 + 400, ones); // eight standard deviations
}

//================================================================================================
// Closing
//================================================================================================

TEST(websocket, close_payload_is_written_and_read)
{
    char buf[125];
    CHECK_EQ(2, netio_ws_close_write(buf, sizeof buf, 1000, NULL));
    CHECK_MEM("\x03\xe8", buf, 2);
    CHECK_EQ(1000, netio_ws_close_code(buf, 2));
    CHECK_EQ(8, netio_ws_close_write(buf, sizeof buf, 4999, "caf\xc3\xa9!"));
    CHECK_MEM("\x13\x87"
              "caf\xc3\xa9!",
              buf, 8);
    CHECK_EQ(4999, netio_ws_close_code(buf, 8));
    CHECK_EQ(0, netio_ws_close_write(buf, 0, 0, NULL));
    CHECK_EQ(1005, netio_ws_close_code(buf, 0));
    CHECK_ERR(NETIO_ENOSPC, netio_ws_close_write(buf, 1, 1000, NULL));
    CHECK_ERR(NETIO_ENOSPC, netio_ws_close_write(buf, 4, 1000, "abc"));
    CHECK_EQ(5, netio_ws_close_write(buf, 5, 1000, "abc"));
    CHECK_ERR(NETIO_EINVAL, netio_ws_close_write(buf, sizeof buf, 0, "why"));
    CHECK_ERR(NETIO_EILSEQ, netio_ws_close_write(buf, sizeof buf, 1000, "\xff"));
    CHECK_ERR(NETIO_EILSEQ, netio_ws_close_write(buf, sizeof buf, 1000, "a\xc3"));
}

TEST(websocket, close_reason_has_at_most_123_bytes)
{
    char buf[130], reason[125];
    memset(reason, 'a', sizeof reason);
    reason[123] = 0;
    CHECK_EQ(125, netio_ws_close_write(buf, sizeof buf, 1000, reason));
    reason[123] = 'a';
    reason[124] = 0;
    CHECK_ERR(NETIO_EMSGSIZE, netio_ws_close_write(buf, sizeof buf, 1000, reason));
}

// Which codes may stand in a frame, both ways: all 65,536 of them.
TEST(websocket, close_codes_are_those_of_the_registry)
{
    for (int code = 0; code < 65536; code++) {
        bool good = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                    (code >= 3000 && code <= 4999);
        unsigned char wire[4] = {0x88, 2, (unsigned char)(code >> 8), (unsigned char)(code & 255)};
        char buf[4];
        netio_decoder d;
        netio_frame f;
        CHECK_OK(netio_decoder_init(&d, netio_framing_websocket(true, 0), NULL, 0));
        CHECK_OK(netio_decoder_feed(&d, wire, 4));
        CHECK_ERR(good ? 1 : NETIO_EPROTO, netio_decoder_next(&d, &f));
        if (good) CHECK_EQ(code, netio_ws_close_code(f.data, f.len));
        netio_decoder_free(&d);
        if (code)
            CHECK_ERR(good ? 2 : NETIO_EINVAL, netio_ws_close_write(buf, sizeof buf, code, NULL));
    }
    CHECK_ERR(NETIO_EINVAL, netio_ws_close_write(room, sizeof room, -1, NULL));
    CHECK_ERR(NETIO_EINVAL, netio_ws_close_write(room, sizeof room, 65536 + 1000, NULL));
}

TEST(websocket, errors_have_a_close_code)
{
    char buf[2];
    static const int rows[][2] = {{0, 1000},
                                  {NETIO_EPROTO, 1002},
                                  {NETIO_EILSEQ, 1007},
                                  {NETIO_EMSGSIZE, 1009},
                                  {NETIO_ENOMEM, 1011},
                                  {NETIO_ENOBUFS, 1011}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_EQ(rows[i][1], netio_ws_close_code_for(rows[i][0]));
        CHECK_EQ(2, netio_ws_close_write(buf, 2, rows[i][1], NULL));
    }
}

//================================================================================================
// Handshake
//================================================================================================

static netio_http_head head;

static int read_head(const char *text) { return netio_http_parse(&head, text, strlen(text)); }

#define REQUEST                                                                                    \
    "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n"                     \
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"                       \
    "Sec-WebSocket-Version: 13\r\n"
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define ANSWER                                                                                     \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"            \
    "Sec-WebSocket-Accept: " ACCEPT "\r\n"

static const char rfc_key[25] = "dGhlIHNhbXBsZSBub25jZQ==";

// RFC 6455 section 1.3.
TEST(websocket, handshake_of_the_rfc_is_answered)
{
    char out[512];
    size_t len = 0;
    CHECK_OK(read_head(REQUEST "Origin: http://example.com\r\n"
                               "Sec-WebSocket-Protocol: chat, superchat\r\n\r\n"));
    CHECK(head.upgrade_websocket);
    CHECK_OK(netio_ws_answer(out, sizeof out, &len, &head));
    CHECK_STR(ANSWER "\r\n", out);
    CHECK_EQ(strlen(out), len);
    CHECK_OK(read_head(out));
    CHECK(head.upgrade_websocket);
    CHECK_OK(netio_ws_check(&head, rfc_key));
}

TEST(websocket, answer_refuses_what_is_no_handshake)
{
    static const struct {
        const char *text;
        int status;
    } rows[] = {
        {REQUEST "\r\n", 101},
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
         426},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
         426},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nconnection: foo, UPGRADE\r\nupgrade: h2c, WebSocket\r\n"
         "sec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version:13\r\n\r\n",
         101},
        {"GET /chat HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
         426},
        {"POST /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
         426},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n",
         426},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 013\r\n\r\n",
         426},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
         400},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\n\r\n",
         400},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\nSec-WebSocket-Version: 13\r\n\r\n",
         400},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\nSec-WebSocket-Version: 13\r\n\r\n",
         400},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEyMzQ1\r\nSec-WebSocket-Version: 13\r\n\r\n",
         400},
        {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key:\r\nSec-WebSocket-Version: 13\r\n\r\n",
         400},
        {REQUEST "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 400},
        {REQUEST "Sec-WebSocket-Version: 13\r\n\r\n", 400},
        {REQUEST "Content-Length: 0\r\n\r\n", 101},
        {REQUEST "Content-Length: 5\r\n\r\n", 400}, // a body would be read as frames
        {REQUEST "Transfer-Encoding: chunked\r\n\r\n", 400},
        {ANSWER "\r\n", 426}, // no request at all
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[512];
        size_t len = 0;
        CHECK_OK(read_head(rows[i].text));
        CHECK_ERR(rows[i].status == 101 ? 0 : NETIO_EPROTO,
                  netio_ws_answer(out, sizeof out, &len, &head));
        CHECK_EQ(strlen(out), len);
        CHECK_OK(read_head(out));
        if (head.status != rows[i].status)
            test_fail(__FILE__, __LINE__, "%d: %s", head.status, rows[i].text);
        CHECK(head.keep_alive == (head.status == 101));
        if (head.status == 101) continue;
        CHECK_EQ(0, head.content_length);
        CHECK_ERR(NETIO_ECONNREFUSED, netio_ws_check(&head, rfc_key));
        if (head.status == 426) {
            CHECK(netio_http_field_has(&head, "upgrade", "websocket"));
            CHECK(netio_buf_equal(netio_http_field(&head, "sec-websocket-version"), "13"));
        }
    }
}

TEST(websocket, answer_fits_or_writes_nothing_to_send)
{
    static const char *const requests[] = {REQUEST "\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"};
    for (size_t i = 0; i < 2; i++) {
        char out[512];
        size_t len = 0, want;
        int verdict;
        CHECK_OK(read_head(requests[i]));
        verdict = netio_ws_answer(out, sizeof out, &want, &head);
        for (size_t cap = 0; cap <= want; cap++) {
            CHECK_ERR(NETIO_ENOSPC, netio_ws_answer(out, cap, &len, &head));
            CHECK_EQ(0, len);
        }
        CHECK_ERR(verdict, netio_ws_answer(out, want + 1, &len, &head));
        CHECK_EQ(want, len);
    }
}

TEST(websocket, request_is_a_handshake_with_a_fresh_key)
{
    char out[512], key[25], before[25] = "";
    uint8_t nonce[16];
    for (int i = 0; i < 20; i++) {
        ptrdiff_t n = netio_ws_request(out, sizeof out, "example.com:8080", "/chat?a=b", key);
        CHECK_EQ(strlen(out), n);
        CHECK_OK(read_head(out));
        CHECK(head.upgrade_websocket && netio_buf_equal(head.method, "GET"));
        CHECK(netio_buf_equal(head.target, "/chat?a=b"));
        CHECK(netio_buf_equal(netio_http_field(&head, "host"), "example.com:8080"));
        CHECK(netio_buf_equal(netio_http_field(&head, "sec-websocket-version"), "13"));
        CHECK(netio_buf_equal(netio_http_field(&head, "sec-websocket-key"), key));
        CHECK(!netio_http_field(&head, "sec-websocket-extensions").data);
        CHECK_EQ(16, netio_base64_decode(nonce, sizeof nonce, key, 24));
        CHECK(strcmp(key, before) != 0);
        memcpy(before, key, sizeof key);
    }
    for (size_t cap = 0; cap <= strlen(out); cap++)
        CHECK_ERR(NETIO_ENOSPC, netio_ws_request(out, cap, "example.com:8080", "/chat?a=b", key));
}

TEST(websocket, request_refuses_what_would_break_its_head)
{
    static const char *const hosts[] = {"a b", "a\r\nX: y", "a/b", "a\n", "u@a", "a:x"};
    static const char *const targets[] = {"",     "chat", "/a b",     "/a\r\nX: y",
                                          "/a#b", "*",    "/\xc3\xa9"};
    char out[512], key[25];
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
        CHECK_ERR(NETIO_EINVAL, netio_ws_request(out, sizeof out, hosts[i], "/", key));
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        CHECK_ERR(NETIO_EINVAL, netio_ws_request(out, sizeof out, "a", targets[i], key));
}

TEST(websocket, both_ends_of_a_handshake_agree)
{
    char request[512], answer[512], key[25];
    size_t len = 0;
    for (int i = 0; i < 50; i++) {
        ptrdiff_t n = netio_ws_request(request, sizeof request, "[::1]:80", "/", key);
        CHECK_OK(netio_http_parse(&head, request, (size_t)n));
        CHECK_OK(netio_ws_answer(answer, sizeof answer, &len, &head));
        CHECK_OK(netio_http_parse(&head, answer, len));
        CHECK_OK(netio_ws_check(&head, key));
        key[0] = key[0] == 'A' ? 'B' : 'A';
        CHECK_ERR(NETIO_EPROTO, netio_ws_check(&head, key));
    }
}

// RFC 6455 section 4.1, what a client must fail on.
TEST(websocket, check_refuses_every_other_answer)
{
    static const struct {
        const char *text;
        int err;
    } rows[] = {
        {ANSWER "\r\n", 0},
        {"HTTP/1.1 101 x\r\nupgrade: WEBSOCKET\r\nconnection: UPGRADE\r\n"
         "sec-websocket-accept: \t" ACCEPT " \r\n\r\n",
         0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", NETIO_ECONNREFUSED},
        {"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", NETIO_ECONNREFUSED},
        {"HTTP/1.1 401 Unauthorized\r\n\r\n", NETIO_ECONNREFUSED},
        {"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
         NETIO_EPROTO},
        {"HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
         NETIO_EPROTO},
        {"HTTP/1.1 101 x\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
         NETIO_EPROTO},
        {ANSWER "Upgrade: websocket\r\n\r\n", NETIO_EPROTO},
        {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
         NETIO_EPROTO},
        {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: close\r\n"
         "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
         NETIO_EPROTO},
        {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", NETIO_EPROTO},
        {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
         NETIO_EPROTO},
        {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
         NETIO_EPROTO},
        {ANSWER "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n", NETIO_EPROTO},
        {ANSWER "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", NETIO_EPROTO},
        {ANSWER "Sec-WebSocket-Protocol: chat\r\n\r\n", NETIO_EPROTO},
        {ANSWER "Sec-WebSocket-Protocol:\r\n\r\n", NETIO_EPROTO},
        {"HTTP/1.0 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n",
         NETIO_EPROTO},
        {REQUEST "\r\n", NETIO_ECONNREFUSED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_OK(read_head(rows[i].text));
        if (netio_ws_check(&head, rfc_key) != rows[i].err)
            test_fail(__FILE__, __LINE__, "not %s: %s", netio_errname(rows[i].err), rows[i].text);
    }
}

TEST(websocket, deflate_is_not_negotiated)
{
    char out[512];
    size_t len = 0;
    unsigned char wire[16];
    CHECK_OK(read_head(REQUEST "Sec-WebSocket-Extensions: permessage-deflate; "
                               "client_max_window_bits\r\n\r\n"));
    CHECK_OK(netio_ws_answer(out, sizeof out, &len, &head));
    CHECK(!strstr(out, "xtension"));
    // And a peer that compresses all the same is refused at its first bit.
    start(true, false, 0);
    cuts_all(&run, wire, hex(wire, sizeof wire, "c107f248cdc9c90700"));
    CHECK_ERR(NETIO_EPROTO, run.err);
}

TEST(websocket, subprotocol_is_the_servers_choice_of_the_clients_offer)
{
    static const char *const mine[] = {"chat.v2", "chat", NULL}, *const none[] = {NULL};
    char out[512];
    size_t len = 0;
    const char *chosen = "";
    CHECK_OK(read_head(REQUEST "Sec-WebSocket-Protocol: chat, superchat\r\n"
                               "Sec-WebSocket-Protocol: x ,chat.v2\r\n\r\n"));
    CHECK_STR("chat.v2", netio_ws_choose(&head, mine));
    CHECK_STR("chat", netio_ws_choose(&head, mine + 1));
    CHECK(!netio_ws_choose(&head, none));
    CHECK_OK(read_head(REQUEST "Sec-WebSocket-Protocol: CHAT\r\n\r\n"));
    CHECK(!netio_ws_choose(&head, mine)); // case matters
    CHECK_OK(netio_ws_answer(out, sizeof out, &len, &head));
    CHECK(netio_http_add(out, sizeof out, len, "Sec-WebSocket-Protocol", "chat") > 0);
    CHECK_OK(read_head(out));
    CHECK_OK(netio_ws_check_protocol(&head, rfc_key, mine, &chosen));
    CHECK(chosen == mine[1]);
    CHECK_ERR(NETIO_EPROTO, netio_ws_check_protocol(&head, rfc_key, none, &chosen));
    CHECK(chosen == mine[1]);
    CHECK_OK(read_head(ANSWER "\r\n"));
    CHECK_OK(netio_ws_check_protocol(&head, rfc_key, mine, &chosen));
    CHECK(!chosen);
    CHECK_OK(read_head(ANSWER "Sec-WebSocket-Protocol: CHAT\r\n\r\n")); // case matters
    CHECK_ERR(NETIO_EPROTO, netio_ws_check_protocol(&head, rfc_key, mine, &chosen));
    CHECK_OK(read_head(ANSWER "Sec-WebSocket-Protocol: chat, chat.v2\r\n\r\n")); // one, not two
    CHECK_ERR(NETIO_EPROTO, netio_ws_check_protocol(&head, rfc_key, mine, &chosen));
    CHECK_OK(
        read_head(ANSWER "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n\r\n"));
    CHECK_ERR(NETIO_EPROTO, netio_ws_check_protocol(&head, rfc_key, mine, &chosen));
}

// A request and the first frame in one piece: what follows the head is read as frames.
TEST(websocket, frames_may_follow_the_handshake_at_once)
{
    unsigned char wire[512];
    size_t len = strlen(REQUEST "\r\n");
    memcpy(wire, REQUEST "\r\n", len);
    len += frame(wire + len, 0x81, "Hello", 5, "abcd");
    for (size_t cut = 1; cut < len; cut++) {
        netio_decoder d;
        netio_frame f;
        int frames = 0;
        CHECK_OK(netio_decoder_init(&d, netio_framing_http_head(0), NULL, 0));
        for (int part = 0; part < 2; part++) {
            CHECK_OK(netio_decoder_feed(&d, wire + (part ? cut : 0), part ? len - cut : cut));
            while (netio_decoder_next(&d, &f) > 0) {
                if (frames++ == 0) {
                    CHECK_OK(netio_http_parse(&head, f.data, f.len));
                    CHECK(head.upgrade_websocket);
                    CHECK_OK(netio_decoder_set_framing(&d, netio_framing_websocket(false, 0)));
                } else {
                    CHECK_EQ(5, f.len);
                    CHECK_MEM("Hello", f.data, 5);
                }
            }
        }
        CHECK_EQ(2, frames);
        netio_decoder_free(&d);
    }
}

// clang-format off
TEST_MAIN("websocket",
    T(websocket, frames_of_the_rfc_are_read),
    T(websocket, frames_of_the_rfc_are_written),
    T(websocket, lengths_around_every_form_round_trip),
    T(websocket, header_goes_around_the_payload_without_a_copy),
    T(websocket, encode_refuses_what_no_peer_would_take),
    T(websocket, malformed_frames_fail_at_their_byte),
    T(websocket, message_of_max_bytes_passes_and_of_one_more_not),
    T(websocket, buffer_of_the_callers_is_the_limit_of_what_is_gathered),
    T(websocket, claims_of_length_take_no_memory),
    T(websocket, frame_that_is_not_masked_is_handed_out_where_it_lies),
    T(websocket, decoder_between_messages_holds_no_memory),
    T(websocket, decoder_without_memory_can_be_asked_again),
    T(websocket, messages_are_the_same_for_every_cut),
    T(websocket, fragments_are_handed_out_as_they_come_if_asked),
    T(websocket, text_may_be_cut_anywhere_in_a_character),
    T(websocket, binary_is_not_checked_for_utf8),
    T(websocket, end_inside_a_message_is_truncated),
    T(websocket, masking_is_right_for_every_length_and_place),
    T(websocket, keys_are_fresh_for_every_frame),
    T(websocket, close_payload_is_written_and_read),
    T(websocket, close_reason_has_at_most_123_bytes),
    T(websocket, close_codes_are_those_of_the_registry),
    T(websocket, errors_have_a_close_code),
    T(websocket, handshake_of_the_rfc_is_answered),
    T(websocket, answer_refuses_what_is_no_handshake),
    T(websocket, answer_fits_or_writes_nothing_to_send),
    T(websocket, request_is_a_handshake_with_a_fresh_key),
    T(websocket, request_refuses_what_would_break_its_head),
    T(websocket, both_ends_of_a_handshake_agree),
    T(websocket, check_refuses_every_other_answer),
    T(websocket, deflate_is_not_negotiated),
    T(websocket, subprotocol_is_the_servers_choice_of_the_clients_offer),
    T(websocket, frames_may_follow_the_handshake_at_once))
// clang-format on
