// Framing: every format against its published examples, and all of them against every way of
// cutting their input. The formats of >>http have tests of their own.
#ifndef _WIN32
#ifndef _GNU_SOURCE
#define _GNU_SOURCE // MAP_ANONYMOUS under -std=c99
#endif
#include <sys/mman.h>
#include <unistd.h>
#endif
#include "test.h"

//================================================================================================
// Running a decoder, and what came of it as text
//================================================================================================

// A frame is its payload and '|'; bytes that are not printable are \xNN, '\' and '|' are doubled.
typedef struct story {
    char text[12000];
    size_t len;
    int err;           // that next() ended with
    uint64_t at, size; // as netio_decoder_blame says
    size_t fed;        // bytes that had been fed when the error came
    uint64_t skipped;
} story;

static void say(story *s, const char *text, size_t len)
{
    if (s->len + len >= sizeof s->text) test_fail(__FILE__, __LINE__, "the story is too long");
    memcpy(s->text + s->len, text, len);
    s->len += len;
    s->text[s->len] = 0;
}

static void say_frame(story *s, const netio_frame *f)
{
    for (size_t i = 0; i < f->len; i++) {
        char c = (char)f->data[i], word[8];
        if (c >= 0x20 && c <= 0x7E && c != '|' && c != '\\') say(s, &c, 1);
        else if (c == '|' || c == '\\') say(s, c == '|' ? "||" : "\\\\", 2);
        else say(s, word, (size_t)snprintf(word, sizeof word, "\\x%02X", (unsigned)f->data[i]));
    }
    say(s, "|", 1);
}

// Take all frames that are there. Each lies in one piece, its header just before it.
static int take(netio_decoder *d, story *s)
{
    netio_frame f;
    int r;
    while ((r = netio_decoder_next(d, &f)) > 0) {
        CHECK(f.data != NULL);
        if (f.header) CHECK(f.header + f.header_len == f.data);
        say_frame(s, &f);
    }
    return r;
}

static int feed(netio_decoder *d, story *s, const void *data, size_t len)
{
    int r;
    CHECK_OK(netio_decoder_feed(d, data, len));
    r = take(d, s);
    s->fed += len;
    return r;
}

// What the decoder says in the end, and that it keeps saying so.
static void finish(netio_decoder *d, story *s, int r)
{
    netio_frame f;
    if (r == 0) {
        netio_decoder_end(d);
        r = take(d, s);
    }
    CHECK(r < 0);
    CHECK_ERR(r, netio_decoder_next(d, &f));
    CHECK_ERR(r, netio_decoder_feed(d, "more", 4));
    CHECK_ERR(r, netio_decoder_set_framing(d, netio_framing_line(0)));
    s->err = r;
    netio_decoder_blame(d, &s->at, &s->size);
    s->skipped = netio_decoder_skipped(d);
    netio_decoder_free(d);
}

// --- memory that ends where it ends --------------------------------------------------------------

#ifndef _WIN32
static uint8_t *guard_end; // the first byte that cannot be touched
static size_t guard_room;

static const void *guarded(const void *data, size_t len)
{
    if (!guard_end) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        uint8_t *p = (uint8_t *)mmap(NULL, 17 * page, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(p != (uint8_t *)MAP_FAILED);
        CHECK_EQ(0, mprotect(p + 16 * page, page, PROT_NONE));
        guard_end = p + 16 * page;
        guard_room = 16 * page;
    }
    CHECK(len <= guard_room);
    if (len) memcpy(guard_end - len, data, len);
    return guard_end - len;
}
#else
static const void *guarded(const void *data, size_t len)
{
    (void)len;
    return data;
}
#endif

// --- ways of cutting -----------------------------------------------------------------------------

static void run_cut(story *s, const netio_framing *f, const void *data, size_t len, size_t cut)
{
    netio_decoder d;
    const char *p = (const char *)data;
    int r;
    memset(s, 0, sizeof *s);
    CHECK_OK(netio_decoder_init(&d, *f, NULL, 0));
    r = feed(&d, s, guarded(p, cut), cut);
    if (r == 0 && cut < len) r = feed(&d, s, guarded(p + cut, len - cut), len - cut);
    finish(&d, s, r);
}

static void run_bytes(story *s, const netio_framing *f, const void *data, size_t len)
{
    netio_decoder d;
    int r = 0;
    memset(s, 0, sizeof *s);
    CHECK_OK(netio_decoder_init(&d, *f, NULL, 0));
    for (size_t i = 0; i < len && r == 0; i++)
        r = feed(&d, s, guarded((const char *)data + i, 1), 1);
    finish(&d, s, r);
}

static void same_story(const story *want, const story *got)
{
    CHECK_STR(want->text, got->text);
    CHECK_ERR(want->err, got->err);
    CHECK_EQ(want->at, got->at);
    CHECK_EQ(want->size, got->size);
    CHECK_EQ(want->skipped, got->skipped);
}

// Whole, byte by byte, and in two pieces everywhere: always the same, and no error before the byte
// that is wrong, nor after it.
static void run_all(story *whole, const netio_framing *f, const void *data, size_t len)
{
    static story s;
    size_t wrong;
    run_cut(whole, f, data, len, len);
    run_bytes(&s, f, data, len);
    same_story(whole, &s);
    wrong = s.fed;
    for (size_t cut = 0; cut < len; cut++) {
        run_cut(&s, f, data, len, cut);
        same_story(whole, &s);
        CHECK_EQ(cut >= wrong && wrong < len ? cut : len, s.fed);
    }
}

//================================================================================================
// Vectors
//================================================================================================

// clang-format off
enum { LINE8, LINE8_SKIP, LINE_KEEP, LF_ONLY, CRLFCRLF, CRLFCRLF_SKIP, AAB, FIXED4, RAW, RAW3,
       U8, U16, U24, U32, U64, U32_LITTLE, U16_SELF, NETTY_CAFE, NETTY_HDR2, NETTY_HDR1_HDR2,
       NETTY_ALL, FRM04, FRM05, FRM06, FRM07, FRM08, CRC32, CRC32C, U32_HUGE, VARINT, VARINT_LAX,
       NETSTRING, COBS8, COBS_BIG, COBS_SKIP, SLIP8, SLIP_SKIP, KINDS };
// clang-format on

static netio_framing length(int width, int header, int offset, int adjust, size_t max)
{
    netio_framing f = netio_framing_length(width, max);
    f.header = (uint8_t)header;
    f.offset = (uint8_t)offset;
    f.adjust = adjust;
    return f;
}

static netio_framing magic(netio_framing f, const char *bytes, size_t len)
{
    f.magic_len = (uint8_t)len;
    memcpy(f.magic, bytes, len);
    return f;
}

static netio_framing check(netio_framing f, int which, int offset)
{
    f.check = (uint8_t)which;
    f.check_offset = (uint8_t)offset;
    return f;
}

static netio_framing skip(netio_framing f)
{
    f.skip = true;
    return f;
}

static netio_framing framing_of(int kind)
{
    netio_framing f = netio_framing_line(8);
    switch (kind) {
    case LINE8: return f;
    case LINE8_SKIP: return skip(f);
    case LINE_KEEP: f.keep = true; return f;
    case LF_ONLY: return netio_framing_delimiter("\n", 1, 8);
    case CRLFCRLF: return netio_framing_delimiter("\r\n\r\n", 4, 8);
    case CRLFCRLF_SKIP: return skip(netio_framing_delimiter("\r\n\r\n", 4, 8));
    case AAB: return netio_framing_delimiter("aab", 3, 100);
    case FIXED4: return netio_framing_fixed(4);
    case RAW: memset(&f, 0, sizeof f); return f;
    case RAW3:
        memset(&f, 0, sizeof f);
        f.max = 3;
        return f;
    case U8: return netio_framing_length(1, 16);
    case U16: return netio_framing_length(2, 16);
    case U24: return netio_framing_length(3, 16);
    case U32: return netio_framing_length(4, 16);
    case U64: return netio_framing_length(8, 16);
    case U32_LITTLE:
        f = netio_framing_length(4, 16);
        f.little = true;
        return f;
    case U16_SELF: return length(2, 2, 0, -2, 16);
    case NETTY_CAFE: return length(3, 5, 2, 0, 16);
    case NETTY_HDR2: return length(3, 5, 0, 0, 16);
    case NETTY_HDR1_HDR2: return length(2, 4, 1, 0, 16);
    case NETTY_ALL: return length(2, 4, 1, -4, 16);
    case FRM04: return magic(length(4, 8, 4, 0, 16), "\x12\x34\x56\x78", 4);
    case FRM05: return length(4, 5, 0, 0, 16);
    case FRM06: return magic(length(2, 8, 6, 0, 65535), "\xDE\xAD\xBE\xEF\x01", 5);
    case FRM07:
        return check(magic(length(4, 12, 4, 0, 16), "\xDE\xAD\xBE\xEF", 4), NETIO_CHECK_SUM32, 8);
    case FRM08: return length(4, 9, 5, 0, 16);
    case CRC32: return check(length(4, 8, 0, 0, 16), NETIO_CHECK_CRC32, 4);
    case CRC32C: return check(length(4, 8, 0, 0, 16), NETIO_CHECK_CRC32C, 4);
    case U32_HUGE: return netio_framing_length(4, SIZE_MAX);
    case VARINT: return netio_framing_varint(300);
    case VARINT_LAX:
        f = netio_framing_varint(300);
        f.lax = true;
        return f;
    case NETSTRING: return netio_framing_netstring(12);
    case COBS8: return netio_framing_cobs(8);
    case COBS_BIG: return netio_framing_cobs(1000);
    case COBS_SKIP: return skip(netio_framing_cobs(8));
    case SLIP8: return netio_framing_slip(8);
    default: return skip(netio_framing_slip(8));
    }
}

typedef struct vector {
    int kind;
    const char *bytes;
    size_t len;
    const char *frames;
    int err;
    uint64_t at, size;
    uint64_t skipped;
} vector;

#define IN(text) text, sizeof(text) - 1
#define END(at) NETIO_EOF, at, 0, 0
#define CUT(at) NETIO_ETRUNCATED, at, 0, 0
#define BAD(at) NETIO_EPROTO, at, 0, 0
#define BIG(at, size) NETIO_EMSGSIZE, at, size, 0
#define SUM(at, size) NETIO_EBADMSG, at, size, 0
#define LEFT_OUT(n, at) NETIO_EOF, at, 0, n

static void check_vectors(const vector *v, size_t count)
{
    static story s;
    for (size_t i = 0; i < count; i++) {
        netio_framing f = framing_of(v[i].kind);
        run_all(&s, &f, v[i].bytes, v[i].len);
        CHECK_STR(v[i].frames, s.text);
        CHECK_ERR(v[i].err, s.err);
        CHECK_EQ(v[i].at, s.at);
        if (v[i].err != NETIO_EOF) CHECK_EQ(v[i].size, s.size);
        CHECK_EQ(v[i].skipped, s.skipped);
    }
}

#define VECTORS(...)                                                                               \
    do {                                                                                           \
        static const vector rows[] = {__VA_ARGS__};                                                \
        check_vectors(rows, sizeof rows / sizeof rows[0]);                                         \
    } while (0)

// clang-format off
TEST(frame, lines_end_with_lf_or_crlf_and_a_tail_counts)
{
    VECTORS({LINE8, IN("a\r\nb\nc"), "a|b|c|", END(6)},
            {LINE8, IN(""), "", END(0)},
            {LINE8, IN("\n\r\n"), "||", END(3)},
            {LINE8, IN("\r\r\n\rx\n"), "\\x0D|\\x0Dx|", END(6)},
            {LINE8, IN("a\0b\n\0\n"), "a\\x00b|\\x00|", END(6)},
            {LINE8, IN("PING\nPONG\n"), "PING|PONG|", END(10)},
            {LINE8, IN("a\r"), "a\\x0D|", END(2)},
            {LINE_KEEP, IN("a\r\nb\nc"), "a\\x0D\\x0A|b\\x0A|c|", END(6)},
            {LF_ONLY, IN("a\r\nb\n"), "a\\x0D|b|", END(5)});
}

TEST(frame, line_over_max_is_refused_or_left_out)
{
    VECTORS({LINE8, IN("12345678\n12345678\r\n12345678"), "12345678|12345678|12345678|", END(27)},
            {LINE8, IN("ok\n123456789\nx\n"), "ok|", BIG(3, 9)},
            {LINE8, IN("ok\n123456789\r\n"), "ok|", BIG(3, 9)},
            {LINE8, IN("12345678\rx\n"), "", BIG(0, 9)},
            {LINE8, IN("12345678\r"), "", BIG(0, 9)},
            {LINE8, IN("123456789"), "", BIG(0, 9)},
            {LINE_KEEP, IN("12345678\r\n123456789\r\n"), "12345678\\x0D\\x0A|", BIG(10, 9)},
            {LINE8_SKIP, IN("ok\n123456789\nfine\n"), "ok|fine|", LEFT_OUT(1, 18)},
            {LINE8_SKIP, IN("123456789abcdefghijklm\n\nx"), "|x|", LEFT_OUT(1, 25)},
            {LINE8_SKIP, IN("12345678\r\r\n123456789\r\n1\n"), "1|", LEFT_OUT(2, 24)},
            {LINE8_SKIP, IN("a\n123456789abc"), "a|", LEFT_OUT(1, 14)},
            {LINE8_SKIP, IN("a\n12345678\r"), "a|", LEFT_OUT(1, 11)});
}

TEST(frame, delimiter_of_many_bytes_is_found_once)
{
    VECTORS({CRLFCRLF, IN("a\r\n\r\nb\r\n\r\r\n\r\n"), "a|b\\x0D\\x0A\\x0D|", END(13)},
            {CRLFCRLF, IN("\r\n\r\n\r\n\r\n"), "||", END(8)},
            {CRLFCRLF, IN("\r\n\r\n\r\n"), "|", CUT(4)},
            {CRLFCRLF, IN("12345678\r\n\r\n123456789\r\n\r\n"), "12345678|", BIG(12, 9)},
            {CRLFCRLF, IN("123456789abcdef"), "", BIG(0, 9)},
            {CRLFCRLF, IN("a\r\n\r\ntail"), "a|", CUT(5)},
            {CRLFCRLF_SKIP, IN("123456789\r\n\r\nx\r\n\r\n"), "x|", LEFT_OUT(1, 18)},
            {CRLFCRLF_SKIP, IN("12345678901234567890\r\n\r\r\n\r\nx\r\n\r\n"), "x|",
             LEFT_OUT(1, 32)},
            {CRLFCRLF_SKIP, IN("12345678\r\nx\r\n\r\nx\r\n\r\n"), "x|", LEFT_OUT(1, 20)},
            {CRLFCRLF_SKIP, IN("1234567890123456"), "", NETIO_ETRUNCATED, 13, 9, 1},
            {AAB, IN("aaabaaaab aab"), "a|aa| |", END(13)},
            {AAB, IN("aabaab"), "||", END(6)});
}

TEST(frame, fixed_size_and_raw)
{
    VECTORS({FIXED4, IN("abcdefgh"), "abcd|efgh|", END(8)},
            {FIXED4, IN("abcdef"), "abcd|", CUT(4)},
            {FIXED4, IN(""), "", END(0)});
}

TEST(frame, length_fields_of_every_width)
{
    VECTORS({U8, IN("\5hello\0\1x"), "hello||x|", END(9)},
            {U16, IN("\0\5hello"), "hello|", END(7)},
            {U24, IN("\0\0\5hello"), "hello|", END(8)},
            {U32, IN("\0\0\0\5hello\0\0\0\0\0\0\0\1!"), "hello||!|", END(18)},
            {U64, IN("\0\0\0\0\0\0\0\5hello"), "hello|", END(13)},
            {U32_LITTLE, IN("\5\0\0\0hello"), "hello|", END(9)},
            {U32, IN("\0\0\0\20" "0123456789abcdef"), "0123456789abcdef|", END(20)},
            {U32, IN("\0\0\0\1x\0\0\0\21" "0123456789abcdefg"), "x|", BIG(5, 17)},
            {U32, IN("\0\0\0\5hel"), "", CUT(0)},
            {U32, IN("\0\0\0\1x\0\0"), "x|", CUT(5)},
            {U32, IN("\0\0\0\2hi"), "hi|", END(6)},
            {U64, IN("\200\0\0\0\0\0\0\0"), "", BIG(0, UINT64_C(1) << 63)},
            {U64, IN("\377\377\377\377\377\377\377\377"), "", BIG(0, UINT64_MAX)},
            {U32_HUGE, IN("\17\377\377\377abc"), "", CUT(0)});
}

// The seven examples of Netty's LengthFieldBasedFrameDecoder. What it strips is in `header`.
TEST(frame, length_field_as_in_netty)
{
    VECTORS({U16, IN("\0\14HELLO, WORLD"), "HELLO, WORLD|", END(14)},
            {U16_SELF, IN("\0\16HELLO, WORLD"), "HELLO, WORLD|", END(14)},
            {NETTY_CAFE, IN("\xCA\xFE\0\0\14HELLO, WORLD"), "HELLO, WORLD|", END(17)},
            {NETTY_HDR2, IN("\0\0\14\xCA\xFEHELLO, WORLD"), "HELLO, WORLD|", END(17)},
            {NETTY_HDR1_HDR2, IN("\xCA\0\14\xFEHELLO, WORLD"), "HELLO, WORLD|", END(16)},
            {NETTY_ALL, IN("\xCA\0\20\xFEHELLO, WORLD"), "HELLO, WORLD|", END(16)},
            {NETTY_ALL, IN("\xCA\0\4\xFE\xCA\0\3\xFE"), "|", BAD(4)},
            {U16_SELF, IN("\0\1"), "", BAD(0)},
            {U16_SELF, IN("\0\2\0\22" "0123456789abcdef"), "|0123456789abcdef|", END(20)},
            {U16_SELF, IN("\0\23"), "", BIG(0, 17)},
            {NETTY_HDR2, IN("\0\0\21"), "", BIG(0, 17)});
}

TEST(frame, headers_with_magic_type_and_sum)
{
    VECTORS({FRM04, IN("\x12\x34\x56\x78\0\0\0\2hi"), "hi|", END(10)},
            {FRM04, IN("\x12\x34\x56\x78\0\0\0\0\x12\x34\x57\x78"), "|", BAD(8)},
            {FRM05, IN("\0\0\0\4\1data\0\0\0\4\2data"), "data|data|", END(18)},
            {FRM06, IN("\xDE\xAD\xBE\xEF\1\7\0\2hi"), "hi|", END(10)},
            {FRM06, IN("\xDE\xAD\xBE\xEF\2\7\0\2hi"), "", BAD(0)},
            {FRM06, IN("\xDE\xAD\xBE\xEE"), "", BAD(0)},
            {FRM07, IN("\xDE\xAD\xBE\xEF\0\0\0\14\0\0\7\x91Hello there!"), "Hello there!|",
             END(24)},
            {FRM07, IN("\xDE\xAD\xBE\xEF\0\0\0\14\0\0\7\x91Hello There!"), "", SUM(0, 12)},
            {FRM07, IN("\xDE\xAD\xBE\xEF\0\0\0\14\0\0\7\x91HelloXthere"), "", CUT(0)},
            {FRM08, IN("\1\0\0\0\1\0\0\0\2hi\2\0\0\0\2\0\0\0\0"), "hi||", END(20)},
            {FRM08, IN("\1\0\0\0\1\0\0\0\21"), "", BIG(0, 17)});
}

TEST(frame, varint_is_protobufs_and_minimal)
{
    VECTORS({VARINT, IN("\0\1a\5hello"), "|a|hello|", END(9)},
            {VARINT, IN("\x81\x02"), "", CUT(0)},
            {VARINT, IN("\1x\xAD\x02"), "x|", BIG(2, 301)},
            {VARINT, IN("\x96\x01"), "", CUT(0)}, // 150
            {VARINT, IN("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"), "", BIG(0, UINT64_MAX)},
            {VARINT, IN("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02"), "", BAD(0)},
            {VARINT, IN("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"), "", BAD(0)},
            {VARINT, IN("\1x\x80\x00"), "x|", BAD(2)},
            {VARINT, IN("\x85\x00hello"), "", BAD(0)},
            {VARINT_LAX, IN("\x85\x00hello"), "hello|", END(7)},
            {VARINT_LAX, IN("\x85\x80\x80\x80\x80\x80\x80\x80\x80\x00hello"), "hello|", END(15)},
            {VARINT_LAX, IN("\x85\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00hello"), "", BAD(0)},
            {VARINT, IN("\x80"), "", CUT(0)});
}

TEST(frame, netstring_is_strict)
{
    VECTORS({NETSTRING, IN("5:hello,0:,12:hello world!,"), "hello||hello world!|", END(27)},
            {NETSTRING, IN("5:hello;"), "", BAD(0)},
            {NETSTRING, IN("1:x,05:hello,"), "x|", BAD(4)},
            {NETSTRING, IN("00:,"), "", BAD(0)},
            {NETSTRING, IN(":,"), "", BAD(0)},
            {NETSTRING, IN("x"), "", BAD(0)},
            {NETSTRING, IN("5 :hello,"), "", BAD(0)},
            {NETSTRING, IN("-1:,"), "", BAD(0)},
            {NETSTRING, IN("13:hello world!!,"), "", BIG(0, 13)},
            {NETSTRING, IN("18446744073709551615:"), "", BIG(0, UINT64_MAX)},
            {NETSTRING, IN("99999999999999999999:"), "", BIG(0, UINT64_MAX)},
            {NETSTRING, IN("100000000000000000000:"), "", BIG(0, UINT64_MAX)},
            {NETSTRING, IN("5:hel"), "", CUT(0)},
            {NETSTRING, IN("5"), "", CUT(0)});
}

// The examples of Cheshire and Baker's paper that fit a line.
TEST(frame, cobs_vectors)
{
    VECTORS({COBS8, IN("\1\1\0"), "\\x00|", END(3)},
            {COBS8, IN("\1\1\1\0"), "\\x00\\x00|", END(4)},
            {COBS8, IN("\3\x11\x22\2\x33\0"), "\\x11\"\\x003|", END(6)},
            {COBS8, IN("\5\x11\x22\x33\x44\0"), "\\x11\"3D|", END(6)},
            {COBS8, IN("\2\x11\1\1\1\0"), "\\x11\\x00\\x00\\x00|", END(6)},
            {COBS8, IN("\1\0\0\0\2a\0"), "|a|", END(7)},
            {COBS8, IN("\11" "12345678\0"), "12345678|", END(10)},
            {COBS8, IN("\2a\0\12" "123456789\0"), "a|", BIG(3, 9)},
            {COBS8, IN("\1\1\1\1\1\1\1\1\1\0"),
             "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00|", END(10)},
            {COBS8, IN("\1\1\1\1\1\1\1\1\1\1\0"), "", BIG(0, 9)},
            {COBS8, IN("123456789abc"), "", BIG(0, 9)},
            {COBS8, IN("\2a\0\5abc\0"), "a|", BAD(3)},
            {COBS8, IN("\2a\0\2"), "a|", CUT(3)},
            {COBS_SKIP, IN("\2a\0\5abc\0\2b\0"), "a|b|", LEFT_OUT(1, 11)},
            {COBS_SKIP, IN("123456789abcdefghijk\0\2b\0\12" "123456789\0"), "b|", LEFT_OUT(2, 35)});
}

TEST(frame, slip_as_rfc_1055)
{
    VECTORS({SLIP8, IN("\xC0" "abc\xC0"), "abc|", END(5)},
            {SLIP8, IN("abc\xC0\xC0\xC0" "d\xC0"), "abc|d|", END(8)},
            {SLIP8, IN("\xC0\xDB\xDC\xDB\xDD\xC0"), "\\xC0\\xDB|", END(6)},
            {SLIP8, IN("12345678\xC0"
                       "\xDB\xDC\xDB\xDC\xDB\xDC\xDB\xDC\xDB\xDC\xDB\xDC\xDB\xDC\xDB\xDC\xC0"),
             "12345678|\\xC0\\xC0\\xC0\\xC0\\xC0\\xC0\\xC0\\xC0|", END(26)},
            {SLIP8, IN("a\xC0" "123456789\xC0"), "a|", BIG(2, 9)},
            {SLIP8, IN("1234567\xDB\xDC\xDB"), "", CUT(0)},
            {SLIP8, IN("1234567\xDB\xDC\xDB\xDC\xC0"), "", BIG(0, 9)},
            {SLIP8, IN("a\xC0" "b\xDB\xC0" "c\xC0"), "a|", BAD(2)},
            {SLIP8, IN("b\xDBx"), "", BAD(0)},
            {SLIP8, IN("\xDB\xDB"), "", BAD(0)},
            {SLIP8, IN("abc"), "", CUT(0)},
            {SLIP_SKIP, IN("a\xC0" "b\xDB\xC0" "c\xC0" "\xDBxyz\xC0" "d\xC0"), "a|c|d|",
             LEFT_OUT(2, 14)},
            {SLIP_SKIP, IN("123456789abcdef\xC0" "d\xC0"), "d|", LEFT_OUT(1, 18)});
}
// clang-format on

// Blocks of 254 and 255 bytes, where COBS has its only corner.
TEST(frame, cobs_around_254_bytes)
{
    static const size_t sizes[] = {252, 253, 254, 255, 256, 507, 508, 509, 510, 511, 762, 763};
    netio_framing f = framing_of(COBS_BIG);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int zero = 0; zero < 4; zero++) {
            uint8_t payload[800], wire[900];
            netio_frame frame, out;
            netio_decoder d;
            ptrdiff_t n;
            memset(&frame, 0, sizeof frame);
            memset(payload, 'x', sizeof payload);
            if (zero == 1) payload[0] = 0;
            if (zero == 2) payload[sizes[i] - 1] = 0;
            if (zero == 3) payload[254] = 0;
            frame.data = payload;
            frame.len = sizes[i];
            n = netio_encode_into(wire, sizeof wire, &f, &frame);
            CHECK(n > 0 && memchr(wire, 0, (size_t)n) == wire + n - 1);
            CHECK((size_t)n <= sizes[i] + sizes[i] / 254 + 2);
            CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
            CHECK_OK(netio_decoder_feed(&d, wire, (size_t)n));
            CHECK_ERR(1, netio_decoder_next(&d, &out));
            CHECK_EQ(sizes[i], out.len);
            CHECK_MEM(payload, out.data, out.len);
            netio_decoder_free(&d);
        }
    }
}

TEST(frame, raw_hands_out_what_there_is)
{
    netio_decoder d;
    netio_frame f;
    CHECK_OK(netio_decoder_init(&d, framing_of(RAW3), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, "abcdefgh", 8));
    for (size_t i = 0; i < 8; i += 3) {
        CHECK_ERR(1, netio_decoder_next(&d, &f));
        CHECK_EQ(i < 6 ? 3 : 2, f.len);
        CHECK_EQ(i, f.offset);
    }
    CHECK_OK(netio_decoder_next(&d, &f));
    CHECK_OK(netio_decoder_set_framing(&d, framing_of(RAW)));
    CHECK_OK(netio_decoder_feed(&d, "abcdefgh", 8));
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK_EQ(8, f.len);
    netio_decoder_end(&d);
    CHECK_ERR(NETIO_EOF, netio_decoder_next(&d, &f));
}

//================================================================================================
// Every format: identity, cuts, memory
//================================================================================================

// Sizes where lengths change their form, else anything small.
static size_t payload_size(uint32_t *random, size_t max)
{
    static const size_t edges[] = {0, 1, 2, 127, 128, 253, 254, 255, 256, 300};
    uint32_t r = test_random(random);
    size_t n = r % 3 == 0 ? edges[r / 3 % (sizeof edges / sizeof edges[0])] : r / 3 % 40;
    return n < max ? n : max;
}

// A payload that this format can carry.
static size_t payload_fill(uint8_t *p, size_t len, const netio_framing *f, uint32_t *random)
{
    if (f->format == NETIO_FORMAT_FIXED) len = f->max;
    if (f->format == NETIO_FORMAT_SLIP && len == 0) len = 1;
    for (size_t i = 0; i < len; i++) {
        uint32_t r = test_random(random);
        p[i] = (uint8_t)(r % 4 == 0 ? 0 : r % 4 == 1 ? (r >> 8 & 1 ? 0xC0 : 0xDB) : r >> 8);
        if (f->format == NETIO_FORMAT_LINE && (p[i] == '\n' || p[i] == '\r')) p[i] = 'n';
        if (f->format == NETIO_FORMAT_DELIMITER && memchr(f->delimiter, p[i], f->delimiter_len))
            p[i] = 'd';
    }
    return len;
}

TEST(frame, decoding_undoes_encoding_however_cut)
{
    static uint8_t wire[400000], payload[40][512];
    size_t sizes[40];
    uint32_t random = 7;
    for (int kind = 0; kind < KINDS; kind++) {
        netio_framing f = framing_of(kind);
        netio_decoder d;
        netio_frame frame;
        size_t len = 0, at = 0, count = 0;
        int r;
        if (kind == RAW || kind == RAW3) continue; // nothing to undo
        if (kind != FIXED4) f.max = 300;
        f.keep = false;
        for (size_t i = 0; i < 40; i++) {
            ptrdiff_t n;
            sizes[i] = payload_size(&random, kind == U8 ? 255 : 300);
            sizes[i] = payload_fill(payload[i], sizes[i], &f, &random);
            memset(&frame, 0, sizeof frame);
            frame.data = sizes[i] ? payload[i] : NULL;
            frame.len = sizes[i];
            n = netio_encode_into(wire + len, sizeof wire - len, &f, &frame);
            CHECK(n >= (ptrdiff_t)sizes[i]);
            CHECK((size_t)n <= netio_encode_bound(&f, sizes[i]));
            len += (size_t)n;
        }
        CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
        while (at < len) {
            size_t piece = 1 + test_random(&random) % (test_random(&random) % 2 ? 5 : 900);
            if (piece > len - at) piece = len - at;
            CHECK_OK(netio_decoder_feed(&d, guarded(wire + at, piece), piece));
            while ((r = netio_decoder_next(&d, &frame)) > 0) {
                CHECK(count < 40);
                CHECK_EQ(sizes[count], frame.len);
                CHECK_MEM(payload[count], frame.data, frame.len);
                count++;
            }
            CHECK_OK(r);
            at += piece;
        }
        CHECK_EQ(40, count);
        netio_decoder_end(&d);
        CHECK_ERR(NETIO_EOF, netio_decoder_next(&d, &frame));
        netio_decoder_free(&d);
    }
}

// A frame that was decoded can be encoded as it is.
TEST(frame, frame_is_handed_back_as_it_came)
{
    // clang-format off
    static const vector rows[] = {
        {LINE8, IN("hello\n"), NULL, 0, 0, 0, 0}, {LINE_KEEP, IN("hello\n"), NULL, 0, 0, 0, 0},
        {CRLFCRLF, IN("hello\r\n\r\n"), NULL, 0, 0, 0, 0}, {FIXED4, IN("data"), NULL, 0, 0, 0, 0},
        {RAW, IN("hello"), NULL, 0, 0, 0, 0},
        {NETTY_ALL, IN("\xCA\0\20\xFEHELLO, WORLD"), NULL, 0, 0, 0, 0},
        {U32_LITTLE, IN("\5\0\0\0hello"), NULL, 0, 0, 0, 0},
        {FRM04, IN("\x12\x34\x56\x78\0\0\0\2hi"), NULL, 0, 0, 0, 0},
        {FRM05, IN("\0\0\0\4\377data"), NULL, 0, 0, 0, 0},
        {FRM06, IN("\xDE\xAD\xBE\xEF\1\7\0\2hi"), NULL, 0, 0, 0, 0},
        {FRM07, IN("\xDE\xAD\xBE\xEF\0\0\0\14\0\0\7\x91Hello there!"), NULL, 0, 0, 0, 0},
        {FRM08, IN("\1\0\0\0\1\0\0\0\2hi"), NULL, 0, 0, 0, 0},
        {VARINT, IN("\5hello"), NULL, 0, 0, 0, 0},
        {NETSTRING, IN("12:hello world!,"), NULL, 0, 0, 0, 0},
        {COBS8, IN("\2\x11\1\1\1\0"), NULL, 0, 0, 0, 0},
        {SLIP8, IN("\xC0\xDB\xDC\xDB\xDD\xC0"), NULL, 0, 0, 0, 0},
    };
    // clang-format on
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_framing f = framing_of(rows[i].kind);
        netio_decoder d;
        netio_frame frame;
        char wire[64];
        CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
        CHECK_OK(netio_decoder_feed(&d, rows[i].bytes, rows[i].len));
        CHECK_ERR(1, netio_decoder_next(&d, &frame));
        CHECK_ERR((ptrdiff_t)rows[i].len, netio_encode_into(wire, sizeof wire, &f, &frame));
        CHECK_MEM(rows[i].bytes, wire, rows[i].len);
        CHECK_ERR((ptrdiff_t)rows[i].len, netio_encode_into(wire, rows[i].len, &f, &frame));
        CHECK_ERR(NETIO_ENOSPC, netio_encode_into(wire, rows[i].len - 1, &f, &frame));
        netio_decoder_free(&d);
    }
}

TEST(frame, whole_frames_are_not_copied_nor_memory_asked_for)
{
    // clang-format off
    static const vector rows[] = {
        {LINE8, IN("hello\r\nworld\n"), NULL, 0, 0, 0, 0},
        {CRLFCRLF, IN("a\r\n\r\nb\r\n\r\n"), NULL, 0, 0, 0, 0},
        {FIXED4, IN("abcdefgh"), NULL, 0, 0, 0, 0},
        {U32, IN("\0\0\0\5hello\0\0\0\1x"), NULL, 0, 0, 0, 0},
        {CRC32C, IN("\0\0\0\0\x8C\x28\xB2\x8A\0\0\0\0\x8C\x28\xB2\x8A"), NULL, 0, 0, 0, 0},
        {VARINT, IN("\5hello\1x"), NULL, 0, 0, 0, 0},
        {NETSTRING, IN("5:hello,1:x,"), NULL, 0, 0, 0, 0},
        // Without a zero, or an escape, the bytes are as they were.
        {COBS8, IN("\6hello\0\2x\0"), NULL, 0, 0, 0, 0},
        {SLIP8, IN("hello\xC0x\xC0"), NULL, 0, 0, 0, 0},
    };
    // clang-format on
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_decoder d;
        netio_frame frame;
        long allocs = test_allocs();
        const uint8_t *in = (const uint8_t *)rows[i].bytes;
        CHECK_OK(netio_decoder_init(&d, framing_of(rows[i].kind), NULL, 0));
        CHECK_OK(netio_decoder_feed(&d, in, rows[i].len));
        for (int n = 0; n < 2; n++) {
            CHECK_ERR(1, netio_decoder_next(&d, &frame));
            CHECK(frame.data >= in && frame.data + frame.len <= in + rows[i].len);
        }
        CHECK_OK(netio_decoder_next(&d, &frame));
        CHECK_EQ(allocs, test_allocs());
        netio_decoder_free(&d);
    }
}

TEST(frame, only_the_frame_that_is_cut_is_copied)
{
    static const char in[] = "\0\0\0\3abc\0\0\0\3def\0\0\0\3ghi";
    netio_decoder d;
    netio_frame f;
    long blocks = test_blocks();
    CHECK_OK(netio_decoder_init(&d, framing_of(U32), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, in, 5));
    CHECK_OK(netio_decoder_next(&d, &f));
    CHECK_EQ(blocks + 1, test_blocks());
    CHECK_OK(netio_decoder_feed(&d, in + 5, 16));
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK_MEM("abc", f.data, 3);
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK(f.data == (const uint8_t *)in + 11);
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK(f.data == (const uint8_t *)in + 18);
    CHECK_OK(netio_decoder_next(&d, &f));
    CHECK_EQ(blocks, test_blocks()); // idle: it holds no memory
    netio_decoder_free(&d);
}

TEST(frame, offset_counts_bytes_of_the_stream)
{
    netio_decoder d;
    netio_frame f;
    static const uint64_t want[] = {0, 7, 12};
    CHECK_OK(netio_decoder_init(&d, framing_of(U32), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, "\0\0\0\3ab", 6));
    CHECK_OK(netio_decoder_next(&d, &f));
    CHECK_OK(netio_decoder_feed(&d, "c\0\0\0\1x\0\0\0\0", 10));
    for (int i = 0; i < 3; i++) {
        CHECK_ERR(1, netio_decoder_next(&d, &f));
        CHECK_EQ(want[i], f.offset);
    }
    netio_decoder_free(&d);
}

// The size of the buffer is not in the interface, so this looks at the decoder's private fields.
TEST(frame, memory_follows_what_arrived_not_what_was_announced)
{
    static const uint8_t huge[] = {0x0F, 0xFF, 0xFF, 0xFF};
    static uint8_t piece[1000];
    netio_decoder d;
    netio_frame f;
    size_t fed = sizeof huge;
    CHECK_OK(netio_decoder_init(&d, netio_framing_length(4, SIZE_MAX), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, huge, sizeof huge));
    CHECK_OK(netio_decoder_next(&d, &f));
    CHECK(d.cap <= 256);
    for (int i = 0; i < 100; i++) {
        CHECK_OK(netio_decoder_feed(&d, piece, sizeof piece));
        CHECK_OK(netio_decoder_next(&d, &f));
        fed += sizeof piece;
        CHECK(d.cap >= fed && d.cap <= 2 * fed + 256);
    }
    netio_decoder_free(&d);

    // Beyond max nothing is allocated, and up to it never more than the frame itself needs.
    for (int width = 4; width <= 8; width += 4) {
        uint8_t claim[8];
        long allocs = test_allocs();
        memset(claim, 0xFF, sizeof claim);
        claim[0] = 0x7F; // 2^63 - 1
        CHECK_OK(netio_decoder_init(&d, netio_framing_length(width, 1 << 20), NULL, 0));
        CHECK_OK(netio_decoder_feed(&d, claim, (size_t)width));
        CHECK_ERR(NETIO_EMSGSIZE, netio_decoder_next(&d, &f));
        CHECK_EQ(allocs, test_allocs());
        netio_decoder_free(&d);
    }
    CHECK_OK(netio_decoder_init(&d, netio_framing_length(4, 3000), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, "\0\0\13\xB8", 4)); // 3000
    CHECK_OK(netio_decoder_next(&d, &f));
    for (size_t left = 3000; left > 100; left -= 100) {
        CHECK_OK(netio_decoder_feed(&d, piece, 100));
        CHECK_OK(netio_decoder_next(&d, &f));
        CHECK(d.cap <= 3004);
    }
    netio_decoder_free(&d);
}

TEST(frame, line_buffer_stays_within_max)
{
    static const int kinds[] = {LINE8,     LINE8_SKIP, CRLFCRLF,  CRLFCRLF_SKIP, COBS8,
                                COBS_SKIP, SLIP8,      SLIP_SKIP, NETSTRING,     VARINT};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        netio_framing f = framing_of(kinds[k]);
        netio_decoder d;
        netio_frame out;
        uint32_t random = 3;
        int r = 0;
        f.max = 1000;
        CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
        for (int i = 0; i < 5000 && r >= 0; i++) {
            uint8_t c = (uint8_t)(test_random(&random) % 200 + 1);
            if (c == '\n' || c == 0xC0 || c == 0xDB) c = '9';
            CHECK_OK(netio_decoder_feed(&d, &c, 1));
            do r = netio_decoder_next(&d, &out);
            while (r > 0);
            CHECK(d.cap <= (f.format == NETIO_FORMAT_SLIP ? 2001 : 1020));
        }
        CHECK(f.skip ? r == 0 : r < 0);
        netio_decoder_free(&d);
    }
}

TEST(frame, buffer_of_the_caller_is_used_and_its_end_respected)
{
    uint8_t buf[9];
    netio_decoder d;
    netio_frame f;
    long allocs = test_allocs();
    static const char in[] = "\0\0\0\5hello";
    CHECK_OK(netio_decoder_init(&d, framing_of(U32), buf, sizeof buf));
    for (int i = 0; i < 9; i++) {
        CHECK_OK(netio_decoder_feed(&d, guarded(&in[i], 1), 1));
        CHECK_ERR(i == 8, netio_decoder_next(&d, &f));
    }
    CHECK(f.data == buf + 4 && f.len == 5);
    CHECK_OK(netio_decoder_feed(&d, "\0\0\0\6hel", 7));
    CHECK_OK(netio_decoder_next(&d, &f));
    CHECK_OK(netio_decoder_feed(&d, "lo!", 3));
    CHECK_ERR(NETIO_ENOBUFS, netio_decoder_next(&d, &f));
    CHECK_ERR(NETIO_ENOBUFS, netio_decoder_next(&d, &f));
    CHECK_EQ(allocs, test_allocs());
    netio_decoder_free(&d);
}

TEST(frame, allocation_that_fails_loses_nothing)
{
    for (int kind = 0; kind < KINDS; kind++) {
        netio_framing f = framing_of(kind);
        uint8_t payload[300], wire[700];
        netio_frame frame, out;
        ptrdiff_t n;
        if (kind == RAW || kind == RAW3 || f.keep) continue;
        if (kind != FIXED4) f.max = 300;
        memset(payload, 'x', sizeof payload);
        payload[100] = kind >= SLIP8 ? 0xC0 : 'y';
        if (f.format == NETIO_FORMAT_COBS) payload[7] = 0; // so that it has to be decoded
        memset(&frame, 0, sizeof frame);
        frame.data = payload;
        frame.len = kind == FIXED4 ? 4 : kind == U8 ? 255 : 300;
        n = netio_encode_into(wire, sizeof wire, &f, &frame);
        CHECK(n > 0);
        for (long fail = 1, failed = 1; failed; fail++) {
            netio_decoder d;
            long blocks = test_blocks();
            int r = 0;
            failed = 0;
            CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
            test_alloc_fail_at(fail);
            for (ptrdiff_t i = 0; i < n; i++) {
                CHECK_OK(netio_decoder_feed(&d, wire + i, 1));
                r = netio_decoder_next(&d, &out);
                if (r == NETIO_ENOMEM) {
                    failed++;
                    r = netio_decoder_next(&d, &out);
                }
                CHECK(r == 0 || (r == 1 && i == n - 1));
            }
            CHECK_EQ(1, r);
            test_alloc_fail_at(0);
            CHECK_EQ(frame.len, out.len);
            CHECK_MEM(payload, out.data, out.len);
            CHECK(failed <= 1);
            netio_decoder_free(&d);
            CHECK_EQ(blocks, test_blocks());
        }
    }
}

//================================================================================================
// Change of framing, rest, misuse
//================================================================================================

TEST(frame, framing_changes_where_the_last_frame_ended)
{
    static const char in[] = "LENGTH\r\n\0\0\0\5hello\0\0\0\4LINEback\nFIXED\nabcdx";
    static const char *want[] = {"LENGTH", "hello", "LINE", "back", "FIXED", "abcd"};
    for (size_t cut = 0; cut < sizeof in; cut++) {
        netio_decoder d;
        netio_frame f;
        netio_buf rest[2];
        size_t count = 0, pieces, len;
        CHECK_OK(netio_decoder_init(&d, framing_of(LINE8), NULL, 0));
        for (int half = 0; half < 2; half++) {
            CHECK_OK(
                netio_decoder_feed(&d, half ? in + cut : in, half ? sizeof in - 1 - cut : cut));
            while (count < 6 && netio_decoder_next(&d, &f) > 0) {
                CHECK_EQ(strlen(want[count]), f.len);
                CHECK_MEM(want[count], f.data, f.len);
                if (f.len == 6) CHECK_OK(netio_decoder_set_framing(&d, framing_of(U32)));
                if (count == 2) CHECK_OK(netio_decoder_set_framing(&d, framing_of(LINE8)));
                if (count == 4) CHECK_OK(netio_decoder_set_framing(&d, framing_of(FIXED4)));
                count++;
            }
            if (half == 0 && cut == sizeof in - 1) break;
        }
        CHECK_EQ(6, count);
        pieces = netio_decoder_rest(&d, rest);
        len = pieces ? rest[0].len : 0;
        CHECK_EQ(1, pieces);
        CHECK_EQ(1, len);
        CHECK_EQ('x', *(const char *)rest[0].data);
        netio_decoder_free(&d);
        if (cut == sizeof in - 2) break;
    }
}

// What a partial frame held is read anew: here several frames of the new format.
TEST(frame, partial_frame_is_read_again_under_the_new_framing)
{
    netio_decoder d;
    netio_frame f;
    static story s;
    memset(&s, 0, sizeof s);
    CHECK_OK(netio_decoder_init(&d, netio_framing_length(3, SIZE_MAX), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, "a\nb\nc\nd", 7));
    CHECK_OK(netio_decoder_next(&d, &f)); // 'a', LF, 'b' as a length
    CHECK_OK(netio_decoder_set_framing(&d, framing_of(LINE8)));
    CHECK_OK(netio_decoder_feed(&d, "e\nf\n", 4));
    CHECK_OK(take(&d, &s));
    CHECK_STR("a|b|c|de|f|", s.text);
    netio_decoder_free(&d);
}

TEST(frame, impossible_change_of_framing_changes_nothing)
{
    netio_decoder d;
    netio_frame f;
    CHECK_OK(netio_decoder_init(&d, framing_of(LINE8), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, "a", 1));
    CHECK_OK(netio_decoder_next(&d, &f));
    CHECK_ERR(NETIO_EINVAL, netio_decoder_set_framing(&d, netio_framing_fixed(0)));
    CHECK_OK(netio_decoder_feed(&d, "b\n", 2));
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK_MEM("ab", f.data, 2);
    netio_decoder_free(&d);
}

TEST(frame, rest_begins_behind_the_last_frame_and_with_the_bad_one)
{
    netio_decoder d;
    netio_frame f;
    netio_buf rest[2];
    CHECK_OK(netio_decoder_init(&d, framing_of(FRM06), NULL, 0));
    CHECK_EQ(0, netio_decoder_rest(&d, rest));
    CHECK_OK(netio_decoder_feed(&d, "\xDE\xAD\xBE\xEF\1\7\0\2hi\xDE\xAD", 12));
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK_EQ(1, netio_decoder_rest(&d, rest));
    CHECK_EQ(2, rest[0].len);
    CHECK_OK(netio_decoder_next(&d, &f));
    CHECK_EQ(1, netio_decoder_rest(&d, rest)); // now in the buffer
    CHECK_MEM("\xDE\xAD", rest[0].data, 2);
    CHECK_OK(netio_decoder_feed(&d, "\xBE\xEF\2more", 7));
    CHECK_ERR(NETIO_EPROTO, netio_decoder_next(&d, &f));
    // The version that was wrong can be named: it stands where the bad frame stands.
    CHECK_EQ(2, netio_decoder_rest(&d, rest));
    CHECK_EQ(8, rest[0].len);
    CHECK_MEM("\xDE\xAD\xBE\xEF\2mor", rest[0].data, 8);
    CHECK_EQ(1, rest[1].len);
    CHECK_MEM("e", rest[1].data, 1);
    netio_decoder_free(&d);
}

TEST(frame, kept_bytes_survive_what_they_were_fed_from)
{
    char piece[] = "a\nb\nc";
    netio_decoder d;
    netio_frame f;
    netio_buf rest[2];
    static story s;
    memset(&s, 0, sizeof s);
    CHECK_OK(netio_decoder_init(&d, framing_of(LINE8), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, piece, 5));
    CHECK_ERR(NETIO_EBUSY, netio_decoder_feed(&d, piece, 5));
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    test_alloc_fail_at(1);
    CHECK_ERR(NETIO_ENOMEM, netio_decoder_keep(&d));
    CHECK_OK(netio_decoder_keep(&d));
    CHECK_OK(netio_decoder_keep(&d)); // nothing to do
    memset(piece, 'X', sizeof piece);
    CHECK_EQ(1, netio_decoder_rest(&d, rest));
    CHECK_MEM("b\nc", rest[0].data, 3);
    CHECK_OK(netio_decoder_feed(&d, "d\n", 2));
    CHECK_EQ(2, netio_decoder_rest(&d, rest));
    CHECK_OK(take(&d, &s));
    CHECK_STR("b|cd|", s.text);
    netio_decoder_free(&d);
}

TEST(frame, decoder_refuses_misuse)
{
    netio_decoder d;
    netio_frame f;
    CHECK_OK(netio_decoder_init(&d, framing_of(LINE8), NULL, 0));
    CHECK_ERR(NETIO_EINVAL, netio_decoder_feed(&d, NULL, 1));
    CHECK_OK(netio_decoder_feed(&d, NULL, 0));
    CHECK_OK(netio_decoder_next(&d, &f));
    netio_decoder_end(&d);
    CHECK_ERR(NETIO_EINVAL, netio_decoder_feed(&d, "x", 1));
    CHECK_ERR(NETIO_EOF, netio_decoder_next(&d, &f));
    netio_decoder_free(&d);
    netio_decoder_free(&d); // and again
}

TEST(frame, impossible_framings_are_refused)
{
    netio_framing bad[20];
    size_t n = 0;
    netio_decoder d;
    netio_envelope e;
    netio_frame frame;
    memset(&frame, 0, sizeof frame);
    bad[n++] = netio_framing_fixed(0);
    bad[n++] = netio_framing_delimiter("", 0, 8);
    bad[n++] = netio_framing_delimiter("12345678901234567", 17, 8);
    bad[n++] = netio_framing_length(0, 8);
    bad[n++] = netio_framing_length(5, 8);
    bad[n++] = netio_framing_length(9, 8);
    bad[n++] = netio_framing_length(-1, 8);
    bad[n++] = netio_framing_length(256 + 4, 8);
    bad[n++] = length(4, 7, 4, 0, 8);                              // field past the header
    bad[n++] = magic(length(4, 8, 2, 0, 8), "1234", 4);            // magic over the field
    bad[n++] = magic(length(2, 4, 2, 0, 8), "12345678", 8);        // magic past the header
    bad[n++] = check(length(4, 8, 0, 0, 8), NETIO_CHECK_CRC32, 5); // sum past the header
    bad[n++] = check(length(4, 8, 0, 0, 8), NETIO_CHECK_CRC32, 3); // sum over the field
    bad[n++] = check(length(4, 8, 0, 0, 8), NETIO_CHECK_CRC32C + 1, 4);
    bad[n++] = magic(check(length(2, 8, 6, 0, 8), NETIO_CHECK_SUM32, 2), "123", 3);
    bad[n++] = netio_framing_custom(NULL, NULL, 8);
    bad[n] = netio_framing_line(8);
    bad[n++].format = -1;
    bad[n] = netio_framing_line(8);
    bad[n++].format = NETIO_FORMAT_CUSTOM + 1;
    bad[n] = netio_framing_line(8);
    bad[n++].delimiter_len = 0;
    for (size_t i = 0; i < n; i++) {
        CHECK_ERR(NETIO_EINVAL, netio_decoder_init(&d, bad[i], NULL, 0));
        CHECK_ERR(NETIO_EINVAL, netio_encode(&e, &bad[i], &frame));
    }
}

TEST(frame, encoder_refuses_what_would_not_come_back)
{
    // clang-format off
    static const struct { int kind; size_t len; int err; } rows[] = {
        {LINE8, 8, 0}, {LINE8, 9, NETIO_EMSGSIZE}, {FIXED4, 4, 0}, {FIXED4, 3, NETIO_EMSGSIZE},
        {FIXED4, 5, NETIO_EMSGSIZE}, {U8, 16, 0}, {U8, 17, NETIO_EMSGSIZE},
        {NETSTRING, 12, 0}, {NETSTRING, 13, NETIO_EMSGSIZE}, {VARINT, 300, 0},
        {VARINT, 301, NETIO_EMSGSIZE}, {RAW3, 100, 0}, {COBS8, 8, NETIO_ENOTSUP},
        {COBS8, 9, NETIO_EMSGSIZE}, {SLIP8, 8, NETIO_ENOTSUP},
        {FRM06, 65535, 0}, {FRM06, 65536, NETIO_EMSGSIZE},
    };
    // clang-format on
    static uint8_t payload[70000];
    netio_envelope e;
    netio_frame frame;
    netio_framing f;
    char wire[64];
    memset(payload, 'x', sizeof payload);
    memset(&frame, 0, sizeof frame);
    frame.data = payload;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        f = framing_of(rows[i].kind);
        frame.len = rows[i].len;
        CHECK_ERR(rows[i].err, netio_encode(&e, &f, &frame));
    }

    // What does not fit the field is refused, not cut, whatever max allows.
    f = netio_framing_length(1, 1000);
    frame.len = 255;
    CHECK_OK(netio_encode(&e, &f, &frame));
    frame.len = 256;
    CHECK_ERR(NETIO_EMSGSIZE, netio_encode(&e, &f, &frame));
    f.adjust = 10; // the field holds len - 10
    CHECK_OK(netio_encode(&e, &f, &frame));
    frame.len = 9;
    CHECK_ERR(NETIO_EMSGSIZE, netio_encode(&e, &f, &frame));
    f.adjust = -10;
    frame.len = 245;
    CHECK_OK(netio_encode(&e, &f, &frame));
    frame.len = 246;
    CHECK_ERR(NETIO_EMSGSIZE, netio_encode(&e, &f, &frame));

    frame.data = (const uint8_t *)"a\nb\n";
    frame.len = 3;
    f = framing_of(LINE8);
    CHECK_ERR(NETIO_EINVAL, netio_encode(&e, &f, &frame));
    frame.len = 2;
    CHECK_ERR(NETIO_EINVAL, netio_encode(&e, &f, &frame));
    f.keep = true; // then the payload brings its own end
    CHECK_ERR(2, netio_encode_into(wire, sizeof wire, &f, &frame));
    frame.len = 4;
    CHECK_ERR(NETIO_EINVAL, netio_encode(&e, &f, &frame));
    frame.data = (const uint8_t *)"x\r\n"; // with "\r\n\r\n" behind it the frame would end at x
    frame.len = 3;
    f = framing_of(CRLFCRLF);
    CHECK_ERR(NETIO_EINVAL, netio_encode(&e, &f, &frame));
    frame.len = 2;
    CHECK_OK(netio_encode(&e, &f, &frame));
    frame.len = 0;
    f = framing_of(SLIP8);
    CHECK_ERR(NETIO_EINVAL, netio_encode_into(wire, sizeof wire, &f, &frame));
    frame.data = NULL;
    frame.len = 1;
    f = framing_of(U32);
    CHECK_ERR(NETIO_EINVAL, netio_encode(&e, &f, &frame));
    frame.data = payload;
    frame.header = payload;
    frame.header_len = 3;
    CHECK_ERR(NETIO_EINVAL, netio_encode(&e, &f, &frame));
}

TEST(frame, line_is_written_with_the_end_that_was_chosen)
{
    char wire[16];
    netio_frame frame;
    netio_framing f = framing_of(LINE8);
    memset(&frame, 0, sizeof frame);
    frame.data = (const uint8_t *)"hi";
    frame.len = 2;
    CHECK_ERR(3, netio_encode_into(wire, sizeof wire, &f, &frame));
    CHECK_MEM("hi\n", wire, 3);
    f.crlf = true;
    CHECK_ERR(4, netio_encode_into(wire, sizeof wire, &f, &frame));
    CHECK_MEM("hi\r\n", wire, 4);
}

TEST(frame, header_given_to_encode_keeps_its_free_bytes)
{
    static const uint8_t header[9] = {7, 1, 2, 3, 4, 0xFF, 0xFF, 0xFF, 0xFF};
    netio_framing f = framing_of(FRM08);
    netio_envelope e;
    netio_frame frame;
    memset(&frame, 0, sizeof frame);
    frame.header = header;
    frame.header_len = sizeof header;
    frame.data = (const uint8_t *)"hi";
    frame.len = 2;
    CHECK_OK(netio_encode(&e, &f, &frame));
    CHECK_EQ(9, e.head_len);
    CHECK_EQ(0, e.tail_len);
    CHECK_MEM("\7\1\2\3\4\0\0\0\2", e.head, 9);
}

TEST(frame, sum_in_the_header_sees_what_a_byte_sum_misses)
{
    static const int kinds[] = {FRM07, CRC32, CRC32C};
    for (size_t i = 0; i < 3; i++) {
        netio_framing f = framing_of(kinds[i]);
        netio_decoder d;
        netio_frame frame;
        char wire[64];
        ptrdiff_t n;
        memset(&frame, 0, sizeof frame);
        frame.data = (const uint8_t *)"abcdef";
        frame.len = 6;
        n = netio_encode_into(wire, sizeof wire, &f, &frame);
        CHECK_EQ(f.header + 6, n);
        memcpy(wire + f.header, "bacdef", 6); // two bytes swapped
        CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
        CHECK_OK(netio_decoder_feed(&d, wire, (size_t)n));
        CHECK_ERR(kinds[i] == FRM07 ? 1 : NETIO_EBADMSG, netio_decoder_next(&d, &frame));
        netio_decoder_free(&d);
    }
}

//================================================================================================
// A format of the user's own
//================================================================================================

// "+text\r\n" and "$5\r\nhello\r\n" of Redis' protocol; "#..." up to CRLF is a comment. The first
// byte is the type.
static ptrdiff_t resp_parse(const netio_framing *framing, const uint8_t *data, size_t len,
                            netio_frame *out, size_t *need)
{
    size_t n = 0, at = 1;
    if (framing->user) ++*(long *)framing->user;
    if (data[0] != '+' && data[0] != '$' && data[0] != '#') return NETIO_EPROTO;
    out->type = data[0];
    for (; at < len && data[at] != '\r'; at++) {
        if (data[0] != '$') continue;
        if (data[at] < '0' || data[at] > '9') return NETIO_EPROTO;
        n = n * 10 + (size_t)(data[at] - '0');
        if (n > framing->max) {
            *need = n;
            return NETIO_EMSGSIZE;
        }
    }
    if (at + 1 >= len) return 0;
    if (data[at + 1] != '\n') return NETIO_EPROTO;
    if (data[0] == '#') return (ptrdiff_t)at + 2;
    out->data = data + 1;
    out->len = at - 1;
    if (data[0] == '+') return (ptrdiff_t)at + 2;
    *need = at + 2 + n + 2;
    if (len < *need) return 0;
    if (memcmp(data + at + 2 + n, "\r\n", 2) != 0) return NETIO_EPROTO;
    out->data = data + at + 2;
    out->len = n;
    return (ptrdiff_t)*need;
}

static int resp_wrap(netio_envelope *out, const netio_framing *framing, const netio_frame *frame)
{
    (void)framing;
    out->head_len =
        (size_t)snprintf((char *)out->head, sizeof out->head, "$%u\r\n", (unsigned)frame->len);
    memcpy(out->tail, "\r\n", 2);
    out->tail_len = 2;
    return 0;
}

static const netio_format_ops resp = {resp_parse, resp_wrap};
static const netio_format_ops resp_read_only = {resp_parse, NULL};

TEST(frame, own_format_has_the_same_properties)
{
    // clang-format off
    static const vector rows[] = {
        {0, IN("+OK\r\n$5\r\nhello\r\n$0\r\n\r\n+\r\n"), "OK|hello|||", END(25)},
        {0, IN("#a comment\r\n+OK\r\n#\r\n"), "OK|", END(20)},
        {0, IN("+OK\r\n$17\r\n"), "OK|", NETIO_EMSGSIZE, 5, 17, 0},
        {0, IN("+OK\r\n*1\r\n"), "OK|", BAD(5)},
        {0, IN("$5\r\nhelloXX"), "", BAD(0)},
        {0, IN("+OK\r\n$5\r\nhel"), "OK|", CUT(5)},
        {0, IN("+01234567890123456\r\n"), "", NETIO_EMSGSIZE, 0, 17, 0},
    };
    // clang-format on
    static story s;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_framing f = netio_framing_custom(&resp, NULL, 16);
        run_all(&s, &f, rows[i].bytes, rows[i].len);
        CHECK_STR(rows[i].frames, s.text);
        CHECK_ERR(rows[i].err, s.err);
        CHECK_EQ(rows[i].at, s.at);
        if (s.err == NETIO_EMSGSIZE) CHECK_EQ(rows[i].size, s.size);
    }
}

// Fills the frame in before it knows whether all of it is there, and never says what it needs.
static ptrdiff_t four_parse(const netio_framing *framing, const uint8_t *data, size_t len,
                            netio_frame *out, size_t *need)
{
    (void)framing, (void)need;
    out->data = data;
    out->len = 4;
    return len < 4 ? 0 : 4;
}

TEST(frame, own_format_may_fill_a_frame_before_it_is_whole)
{
    static const netio_format_ops four = {four_parse, NULL};
    static story s;
    netio_framing f = netio_framing_custom(&four, NULL, 16);
    run_all(&s, &f, "aaaabbbbcccc", 12);
    CHECK_STR("aaaa|bbbb|cccc|", s.text);
    run_all(&s, &f, "aaaabb", 6);
    CHECK_STR("aaaa|", s.text);
    CHECK_ERR(NETIO_ETRUNCATED, s.err);
}

TEST(frame, own_format_encodes_and_is_bounded)
{
    netio_framing f = netio_framing_custom(&resp, NULL, 16);
    netio_decoder d;
    netio_frame frame;
    char wire[32];
    int r = 0;
    memset(&frame, 0, sizeof frame);
    frame.data = (const uint8_t *)"hello";
    frame.len = 5;
    CHECK_ERR(11, netio_encode_into(wire, sizeof wire, &f, &frame));
    CHECK_MEM("$5\r\nhello\r\n", wire, 11);
    f.ops = &resp_read_only;
    CHECK_ERR(NETIO_ENOTSUP, netio_encode_into(wire, sizeof wire, &f, &frame));

    // A frame that never ends is refused in time: max, and as much again as an envelope has.
    CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
    for (size_t i = 0; i < 1000 && r == 0; i++) {
        CHECK_OK(netio_decoder_feed(&d, "+", 1));
        r = netio_decoder_next(&d, &frame);
        CHECK(d.cap <= 16 + sizeof(netio_envelope)); // private: memory is what this is about
    }
    CHECK_ERR(NETIO_EMSGSIZE, r);
    netio_decoder_free(&d);
}

TEST(frame, own_format_is_not_asked_before_its_need_is_there)
{
    long calls = 0;
    netio_framing f = netio_framing_custom(&resp, &calls, 1000);
    netio_decoder d;
    netio_frame frame;
    CHECK_OK(netio_decoder_init(&d, f, NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, "$900\r\n", 6));
    CHECK_OK(netio_decoder_next(&d, &frame));
    calls = 0;
    for (int i = 0; i < 902; i++) {
        CHECK_OK(netio_decoder_feed(&d, i == 900 ? "\r" : i == 901 ? "\n" : "x", 1));
        CHECK_ERR(i == 901, netio_decoder_next(&d, &frame));
    }
    CHECK_EQ(900, frame.len);
    CHECK(calls <= 2);
    netio_decoder_free(&d);
}

//================================================================================================
// Cursors, sums, UTF-8
//================================================================================================

TEST(frame, cursor_reads_and_writes_every_width_in_both_orders)
{
    static const uint8_t bytes[] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF};
    static const uint64_t big[] = {0,
                                   0x01,
                                   0x0123,
                                   0x012345,
                                   0x01234567,
                                   UINT64_C(0x0123456789),
                                   UINT64_C(0x0123456789AB),
                                   UINT64_C(0x0123456789ABCD),
                                   UINT64_C(0x0123456789ABCDEF)};
    for (int width = 1; width <= 8; width++) {
        for (size_t shift = 0; shift < 8; shift++) { // also at addresses of no alignment
            uint8_t room[16], want[16];
            netio_cursor cur;
            memset(room, 0xEE, sizeof room);
            memset(want, 0xEE, sizeof want);
            memcpy(want + shift, bytes, (size_t)width);
            cur = netio_cursor_put(room + shift, (size_t)width);
            netio_put_uint(&cur, width, big[width]);
            CHECK_OK(cur.err);
            CHECK_MEM(want, room, sizeof room);
            cur = netio_cursor_get(room + shift, (size_t)width);
            CHECK(netio_get_uint(&cur, width) == big[width]);
            CHECK_EQ(width, cur.off);

            cur = netio_cursor_get(room + shift, (size_t)width);
            cur.little = true;
            uint64_t value = netio_get_uint(&cur, width);
            cur = netio_cursor_put(room + shift, (size_t)width);
            netio_put_uint(&cur, width, value);
            for (int i = 0; i < width; i++) CHECK_EQ(bytes[width - 1 - i], room[shift + (size_t)i]);
        }
    }
}

TEST(frame, cursor_never_passes_its_end)
{
    uint8_t room[4] = {1, 2, 3, 4};
    netio_cursor cur = netio_cursor_get(room, 3);
    CHECK_EQ(0x0102, netio_get_uint(&cur, 2));
    CHECK_EQ(0, netio_get_uint(&cur, 2));
    CHECK_ERR(NETIO_ETRUNCATED, cur.err);
    CHECK_EQ(2, cur.off);
    CHECK_EQ(0, netio_get_uint(&cur, 1)); // it sticks
    CHECK(netio_get_bytes(&cur, 1) == NULL);

    cur = netio_cursor_put(room, 3);
    netio_put_bytes(&cur, "ab", 2);
    netio_put_uint(&cur, 2, 7);
    CHECK_ERR(NETIO_ETRUNCATED, cur.err);
    netio_put_bytes(&cur, "c", 1);
    CHECK_MEM("ab\3\4", room, 4);

    cur = netio_cursor_get(room, 4);
    CHECK(netio_get_bytes(&cur, 4) == room);
    CHECK(netio_get_bytes(&cur, 0) != NULL);
    CHECK_OK(cur.err);
    CHECK(netio_get_bytes(&cur, SIZE_MAX) == NULL);

    cur = netio_cursor_get(room, 4);
    CHECK_EQ(0, netio_get_uint(&cur, 9));
    CHECK_ERR(NETIO_EINVAL, cur.err);
    cur = netio_cursor_put(room, 4);
    netio_put_uint(&cur, 0, 0);
    CHECK_ERR(NETIO_EINVAL, cur.err);
    cur = netio_cursor_put(room, 4);
    netio_put_uint(&cur, 2, 65536); // refused, not cut
    CHECK_ERR(NETIO_EMSGSIZE, cur.err);
    CHECK_EQ(0, cur.off);
    cur = netio_cursor_get(NULL, 4);
    CHECK_EQ(0, netio_get_uint(&cur, 1));
    CHECK_ERR(NETIO_ETRUNCATED, cur.err);
    cur = netio_cursor_get(room, 4); // not for writing
    netio_put_uint(&cur, 1, 1);
    CHECK(cur.err < 0);
}

TEST(frame, sums_have_their_published_values)
{
    static const char nine[] = "123456789";
    uint8_t bytes[48];
    CHECK_EQ(0xCBF43926, netio_crc32(0, nine, 9));
    CHECK_EQ(0xE3069283, netio_crc32c(0, nine, 9));
    CHECK_EQ(0x1DD, netio_sum32(0, nine, 9));
    // RFC 3720 appendix B.4: CRC-32C of 32 bytes.
    memset(bytes, 0, 32);
    CHECK_EQ(0x8A9136AA, netio_crc32c(0, bytes, 32));
    CHECK_EQ(0x190A55AD, netio_crc32(0, bytes, 32));
    memset(bytes, 0xFF, 32);
    CHECK_EQ(0x62A8AB43, netio_crc32c(0, bytes, 32));
    for (int i = 0; i < 32; i++) bytes[i] = (uint8_t)i;
    CHECK_EQ(0x46DD794E, netio_crc32c(0, bytes, 32));
    CHECK_EQ(0x91267E8A, netio_crc32(0, bytes, 32));
    CHECK_EQ(0, netio_crc32(0, NULL, 9));
    CHECK_EQ(0, netio_crc32c(0, NULL, 0));
    CHECK_EQ(5, netio_sum32(5, NULL, 9));
    CHECK_EQ(0xFE, netio_sum32(0xFFFFFFFF, "\xFF", 1)); // modulo 2^32
}

// Bit by bit, as the definition says.
static uint32_t slow_crc(uint32_t polynomial, uint32_t crc, const uint8_t *p, size_t len)
{
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? polynomial : 0);
    }
    return ~crc;
}

TEST(frame, sums_over_pieces_are_those_of_the_whole)
{
    uint8_t bytes[200];
    test_fill(bytes, sizeof bytes, 5);
    for (size_t len = 0; len <= sizeof bytes; len++) {
        uint32_t crc = slow_crc(0xEDB88320, 0, bytes, len);
        uint32_t crc_c = slow_crc(0x82F63B78, 0, bytes, len), sum = netio_sum32(0, bytes, len);
        CHECK_EQ(crc, netio_crc32(0, bytes, len));
        CHECK_EQ(crc_c, netio_crc32c(0, bytes, len));
        for (size_t cut = 0; cut <= len; cut += 1 + len / 7) {
            const uint8_t *behind = bytes + cut;
            CHECK_EQ(crc, netio_crc32(netio_crc32(0, bytes, cut), behind, len - cut));
            CHECK_EQ(crc_c, netio_crc32c(netio_crc32c(0, bytes, cut), behind, len - cut));
            CHECK_EQ(sum, netio_sum32(netio_sum32(0, bytes, cut), behind, len - cut));
        }
    }
}

// By the table of RFC 3629 section 4, one character at a time. Returns the first bad position and
// whether a character had begun before it; SIZE_MAX: all good, perhaps cut at the end (`*open`).
static size_t slow_utf8(const uint8_t *p, size_t len, bool *open)
{
    size_t i = 0;
    *open = false;
    while (i < len) {
        uint8_t c = p[i];
        size_t n = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : 4;
        if ((c >= 0x80 && c < 0xC2) || c > 0xF4) return i;
        for (size_t k = 1; k < n; k++) {
            bool fits;
            *open = true;
            if (i + k == len) return SIZE_MAX;
            fits = p[i + k] >= 0x80 && p[i + k] <= 0xBF;
            if (k == 1 && c == 0xE0) fits = fits && p[i + 1] >= 0xA0;
            if (k == 1 && c == 0xED) fits = fits && p[i + 1] <= 0x9F;
            if (k == 1 && c == 0xF0) fits = fits && p[i + 1] >= 0x90;
            if (k == 1 && c == 0xF4) fits = fits && p[i + 1] <= 0x8F;
            if (!fits) return i + k;
        }
        *open = false;
        i += n;
    }
    return SIZE_MAX;
}

static void check_utf8(const uint8_t *p, size_t len)
{
    bool open;
    size_t want = slow_utf8(p, len, &open);
    for (size_t cut = 0; cut <= len; cut++) {
        uint32_t state = 0;
        size_t bad = SIZE_MAX, first = SIZE_MAX;
        int err = netio_utf8_check(&state, guarded(p, cut), cut, &first);
        if (err == 0) {
            err = netio_utf8_check(&state, guarded(p + cut, len - cut), len - cut, &bad);
            if (err < 0) bad += cut;
        } else {
            bad = first;
        }
        CHECK_EQ(want == SIZE_MAX ? 0 : NETIO_EILSEQ, err);
        CHECK_EQ(want, bad);
        CHECK_EQ(open, state != 0);
    }
}

TEST(frame, utf8_is_judged_alike_however_cut)
{
    // Every pair and triple of bytes from the edges of the ranges, and among ASCII of each length.
    static const uint8_t edges[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                    0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED,
                                    0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
    uint8_t text[96];
    uint32_t random = 11;
    enum { EDGES = sizeof edges };
    for (size_t a = 0; a < EDGES; a++)
        for (size_t b = 0; b < EDGES; b++)
            for (size_t c = 0; c < EDGES; c++) {
                uint8_t triple[4] = {edges[a], edges[b], edges[c], 0x80};
                check_utf8(triple, 4);
            }
    for (size_t len = 0; len < sizeof text; len++) {
        memset(text, 'a', sizeof text);
        check_utf8(text, len);
        for (int i = 0; i < 6; i++) {
            size_t at = len ? test_random(&random) % len : 0;
            text[at] = edges[test_random(&random) % EDGES];
            check_utf8(text, len);
        }
    }
    check_utf8((const uint8_t *)"\xF0\x9F\x98\x80 gr\xC3\xBC\xC3\x9F \xE2\x82\xAC", 15);
}

// The recommended replacement (Unicode chapter 3, "maximal subparts") with the call as it is.
static size_t replace(char *out, const uint8_t *p, size_t len)
{
    uint32_t state = 0;
    size_t n = 0, bad;
    while (netio_utf8_check(&state, p, len, &bad) < 0) {
        size_t begun = 0; // bytes of a character that broke off before `bad`
        while (state && bad > begun && (p[bad - 1 - begun++] & 0xC0) == 0x80) continue;
        memcpy(out + n, p, bad - begun);
        n += bad - begun;
        memcpy(out + n, "?", 1);
        n++;
        bad += state == 0; // a byte that begins nothing goes; one that broke in may begin
        state = 0;
        p += bad;
        len -= bad;
    }
    memcpy(out + n, p, len);
    return n + len;
}

TEST(frame, utf8_can_be_repaired_with_what_the_check_says)
{
    // Unicode 15 table 3-8: 61 F1 80 80 E1 80 C2 62 80 63 80 BF 64.
    char out[32];
    size_t n = replace(out,
                       (const uint8_t *)"a\xF1\x80\x80\xE1\x80\xC2"
                                        "b\x80"
                                        "c\x80\xBF"
                                        "d",
                       13);
    CHECK_EQ(10, n);
    CHECK_MEM("a???b?c??d", out, 10);
}

TEST_MAIN("frame", T(frame, lines_end_with_lf_or_crlf_and_a_tail_counts),
          T(frame, line_over_max_is_refused_or_left_out),
          T(frame, delimiter_of_many_bytes_is_found_once), T(frame, fixed_size_and_raw),
          T(frame, length_fields_of_every_width), T(frame, length_field_as_in_netty),
          T(frame, headers_with_magic_type_and_sum), T(frame, varint_is_protobufs_and_minimal),
          T(frame, netstring_is_strict), T(frame, cobs_vectors), T(frame, slip_as_rfc_1055),
          T(frame, cobs_around_254_bytes), T(frame, raw_hands_out_what_there_is),
          T(frame, decoding_undoes_encoding_however_cut), T(frame, frame_is_handed_back_as_it_came),
          T(frame, whole_frames_are_not_copied_nor_memory_asked_for),
          T(frame, only_the_frame_that_is_cut_is_copied),
          T(frame, offset_counts_bytes_of_the_stream),
          T(frame, memory_follows_what_arrived_not_what_was_announced),
          T(frame, line_buffer_stays_within_max),
          T(frame, buffer_of_the_caller_is_used_and_its_end_respected),
          T(frame, allocation_that_fails_loses_nothing),
          T(frame, framing_changes_where_the_last_frame_ended),
          T(frame, partial_frame_is_read_again_under_the_new_framing),
          T(frame, impossible_change_of_framing_changes_nothing),
          T(frame, rest_begins_behind_the_last_frame_and_with_the_bad_one),
          T(frame, kept_bytes_survive_what_they_were_fed_from), T(frame, decoder_refuses_misuse),
          T(frame, impossible_framings_are_refused),
          T(frame, encoder_refuses_what_would_not_come_back),
          T(frame, line_is_written_with_the_end_that_was_chosen),
          T(frame, header_given_to_encode_keeps_its_free_bytes),
          T(frame, sum_in_the_header_sees_what_a_byte_sum_misses),
          T(frame, own_format_has_the_same_properties),
          T(frame, own_format_may_fill_a_frame_before_it_is_whole),
          T(frame, own_format_encodes_and_is_bounded),
          T(frame, own_format_is_not_asked_before_its_need_is_there),
          T(frame, cursor_reads_and_writes_every_width_in_both_orders),
          T(frame, cursor_never_passes_its_end), T(frame, sums_have_their_published_values),
          T(frame, sums_over_pieces_are_those_of_the_whole),
          T(frame, utf8_is_judged_alike_however_cut),
          T(frame, utf8_can_be_repaired_with_what_the_check_says))
