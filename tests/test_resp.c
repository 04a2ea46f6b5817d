// RESP2, examples/common/resp.h: a format of the user's own, against the examples of the protocol's
// specification, in every cut, at every limit, and the same on decoders, streams and connections.
#include "cuts.h"
#include "engine.h"

#include "../examples/common/resp.h"

//================================================================================================
// Tools
//================================================================================================

#define IN(text) text, sizeof(text) - 1

static cuts run;
static char room[8192]; // for decoders with memory of the caller's

static const resp_limits tight = {.items_max = 4, .bulk_max = 9, .line_max = 8, .depth_max = 2};

static void start(netio_framing framing)
{
    memset(&run, 0, sizeof run);
    run.framing = framing;
    run.buf = room;
    run.cap = sizeof room;
    run.end = true;
}

// What a stream holds, as text: commands "GET,key|", replies "$hello|" and "*(:1,*(+a,_))|".
typedef struct tale {
    char text[4096];
    size_t len;
    int err;
    uint64_t offset, size;
} tale;

static void tell(tale *t, const char *data, size_t len)
{
    for (size_t i = 0; i < len && t->len + 5 < sizeof t->text; i++) {
        bool plain = data[i] >= ' ' && data[i] <= '~';
        t->len += (size_t)snprintf(t->text + t->len, 5, plain ? "%c" : "\\x%02x",
                                   (unsigned)(unsigned char)data[i]);
    }
}

static void tell_value(tale *t, resp_reader *r)
{
    resp_value v;
    memset(&v, 0, sizeof v);
    CHECK(resp_next(r, &v));
    tell(t, &(char){(char)v.type}, 1);
    if (v.type != RESP_ARRAY) {
        tell(t, v.text.data, v.text.len);
        return;
    }
    tell(t, "(", 1);
    for (int64_t i = 0; i < v.number; i++) {
        if (i > 0) tell(t, ",", 1);
        tell_value(t, r);
    }
    tell(t, ")", 1);
}

static void tell_frame(tale *t, const netio_frame *f)
{
    netio_buf args[16];
    ptrdiff_t count = resp_args(f, args, 16);
    resp_reader r = resp_read(f);
    resp_value over;
    if (f->header && count < 0) {
        tell_value(t, &r);
        CHECK(!resp_next(&r, &over));
    } else if (!f->header && count < 0) {
        tell(t, &(char){(char)f->type}, 1);
        tell(t, (const char *)f->data, f->len);
    }
    for (ptrdiff_t i = 0; i < count; i++) {
        if (i > 0) tell(t, ",", 1);
        tell(t, args[i].data, args[i].len);
    }
    tell(t, "|", 1);
}

static tale *read_all(netio_framing framing, const void *data, size_t len)
{
    static tale t;
    netio_decoder d;
    netio_frame f;
    memset(&t, 0, sizeof t);
    CHECK_OK(netio_decoder_init(&d, framing, NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, data, len));
    netio_decoder_end(&d);
    while ((t.err = netio_decoder_next(&d, &f)) > 0) tell_frame(&t, &f);
    netio_decoder_blame(&d, &t.offset, &t.size);
    netio_decoder_free(&d);
    return &t;
}

typedef struct row {
    const char *bytes;
    size_t len;
    const char *frames;
    int err;           // at the end
    size_t at, offset; // bytes that had to be there for it; where the bad frame begins
} row;

// Every cut tells the same, and the error comes with the byte that is wrong.
static void check_rows(netio_framing framing, const row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        tale *t = read_all(framing, rows[i].bytes, rows[i].len);
        CHECK_STR(rows[i].frames, t->text);
        CHECK_ERR(rows[i].err, t->err);
        start(framing);
        cuts_all(&run, rows[i].bytes, rows[i].len);
        CHECK_ERR(rows[i].err, run.err);
        if (rows[i].err == NETIO_EOF) continue;
        CHECK_EQ(rows[i].offset, t->offset);
        if (rows[i].err == NETIO_ETRUNCATED) continue;
        CHECK_EQ(rows[i].at, cuts_error_at(&run, rows[i].bytes, rows[i].len));
    }
}

#define ROWS(framing, rows) check_rows(framing, rows, sizeof rows / sizeof rows[0])

//================================================================================================
// Reading
//================================================================================================

TEST(resp, commands_are_read)
{
    // clang-format off
    static const row rows[] = {
        {IN("*2\r\n$4\r\nLLEN\r\n$6\r\nmylist\r\n"), "LLEN,mylist|", NETIO_EOF, 0, 0},
        {IN("*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n"), "PING|QUIT|", NETIO_EOF, 0, 0},
        {IN("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\n\0$\r\n"), "SET,k,\\x0d\\x0a\\x00$|",
         NETIO_EOF, 0, 0},
        {IN("*2\r\n$0\r\n\r\n$0\r\n\r\n"), ",|", NETIO_EOF, 0, 0},
        {IN("PING\r\n"), "PING|", NETIO_EOF, 0, 0},
        {IN("  set\tk  value \n"), "set,k,value|", NETIO_EOF, 0, 0},
        {IN("PING\r\n*1\r\n$4\r\nPING\r\nPING \"a b\"\r\n"), "PING|PING|PING,\"a,b\"|",
         NETIO_EOF, 0, 0},
        {IN("\r\n\n \t \r\nPING\n\n"), "PING|", NETIO_EOF, 0, 0}, // empty ones are none
        {IN("*0\r\n*-1\r\n*1\r\n$1\r\na\r\n*0\r\n"), "a|", NETIO_EOF, 0, 0},
        {IN("*2\r\n$4\r\nECHO\r\n$19\r\n*1\r\n$4\r\nQUIT\r\n+OK\r\n\r\n"),
         "ECHO,*1\\x0d\\x0a$4\\x0d\\x0aQUIT\\x0d\\x0a+OK\\x0d\\x0a|", NETIO_EOF, 0, 0},
        {IN("PING\r\n*1\r\n$4\r\nPI"), "PING|", NETIO_ETRUNCATED, 0, 6},
        {IN("PIN"), "", NETIO_ETRUNCATED, 0, 0},
    };
    // clang-format on
    ROWS(resp_commands(NULL, 0), rows);
}

TEST(resp, replies_are_read)
{
    // clang-format off
    static const row rows[] = { // most of them as the specification shows them
        {IN("+OK\r\n-Error message\r\n"), "+OK|-Error message|", NETIO_EOF, 0, 0},
        {IN(":0\r\n:1000\r\n:-7\r\n:+7\r\n"), ":0|:1000|:-7|:+7|", NETIO_EOF, 0, 0},
        {IN(":9223372036854775807\r\n:-9223372036854775808\r\n"),
         ":9223372036854775807|:-9223372036854775808|", NETIO_EOF, 0, 0},
        {IN("$5\r\nhello\r\n$0\r\n\r\n$-1\r\n"), "$hello|$|_|", NETIO_EOF, 0, 0},
        {IN("*0\r\n*-1\r\n"), "|_|", NETIO_EOF, 0, 0},
        {IN("*2\r\n$5\r\nhello\r\n$5\r\nworld\r\n"), "hello,world|", NETIO_EOF, 0, 0},
        {IN("*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n$5\r\nhello\r\n"), "*(:1,:2,:3,:4,$hello)|",
         NETIO_EOF, 0, 0},
        {IN("*2\r\n*3\r\n:1\r\n:2\r\n:3\r\n*2\r\n+Hello\r\n-World\r\n"),
         "*(*(:1,:2,:3),*(+Hello,-World))|", NETIO_EOF, 0, 0},
        {IN("*3\r\n$5\r\nhello\r\n$-1\r\n$5\r\nworld\r\n"), "*($hello,_,$world)|", NETIO_EOF, 0, 0},
        {IN("*3\r\n*0\r\n*-1\r\n*1\r\n*1\r\n+\r\n+end\r\n"), "*(*(),_,*(*(+)))|+end|",
         NETIO_EOF, 0, 0},
        {IN("+OK\r\n*2\r\n:1\r\n"), "+OK|", NETIO_ETRUNCATED, 0, 5},
    };
    // clang-format on
    ROWS(resp_replies(NULL, 0), rows);
}

TEST(resp, malformed_commands_fail_at_their_byte)
{
    // clang-format off
    static const row rows[] = {
        {IN("*\r\n"), "", NETIO_EPROTO, 2, 0},
        {IN("*-\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN("*-2\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN("*-0\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN("*01\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN("*+1\r\n"), "", NETIO_EPROTO, 2, 0},
        {IN("* 1\r\n"), "", NETIO_EPROTO, 2, 0},
        {IN("*1 \r\n"), "", NETIO_EPROTO, 3, 0},
        {IN("*1\n$4\r\nPING\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN("*1\rx"), "", NETIO_EPROTO, 4, 0},
        {IN("*1x\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN("*1\r\n+PING\r\n"), "", NETIO_EPROTO, 5, 0},
        {IN("*1\r\n:1\r\n"), "", NETIO_EPROTO, 5, 0},
        {IN("*1\r\n*1\r\n$1\r\na\r\n"), "", NETIO_EPROTO, 5, 0},
        {IN("*1\r\nPING\r\n"), "", NETIO_EPROTO, 5, 0},
        {IN("*1\r\n$-1\r\n"), "", NETIO_EPROTO, 6, 0},
        {IN("*1\r\n$\r\n"), "", NETIO_EPROTO, 6, 0},
        {IN("*1\r\n$04\r\n"), "", NETIO_EPROTO, 7, 0},
        {IN("*1\r\n$4\r\nPINGX\r\n"), "", NETIO_EPROTO, 13, 0},
        {IN("*1\r\n$4\r\nPING\rX"), "", NETIO_EPROTO, 14, 0},
        {IN("*1\r\n$4\r\nPING\n\n"), "", NETIO_EPROTO, 13, 0},
        {IN("*1\r\n$4\r\nPING\r\n*1\r\n!"), "PING|", NETIO_EPROTO, 19, 14},
        {IN("PING\r\n\x16\x03\x01"), "PING|", NETIO_EPROTO, 7, 6}, // TLS
        {IN("PI\0NG\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN("PI\rNG\r\n"), "", NETIO_EPROTO, 4, 0},
        {IN("PING\r\r\n"), "", NETIO_EPROTO, 6, 0},
        {IN("PING\x7f\r\n"), "", NETIO_EPROTO, 5, 0},
    };
    // clang-format on
    ROWS(resp_commands(NULL, 0), rows);
}

TEST(resp, malformed_replies_fail_at_their_byte)
{
    // clang-format off
    static const row rows[] = {
        {IN("OK\r\n"), "", NETIO_EPROTO, 1, 0},
        {IN("\r\n"), "", NETIO_EPROTO, 1, 0},
        {IN("_\r\n"), "", NETIO_EPROTO, 1, 0}, // RESP3
        {IN("+OK\n"), "", NETIO_EPROTO, 4, 0},
        {IN("+OK\rx"), "", NETIO_EPROTO, 5, 0},
        {IN("+OK\r\r\n"), "", NETIO_EPROTO, 5, 0},
        {IN("-a\nb\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN(":\r\n"), "", NETIO_EPROTO, 2, 0},
        {IN(":1.5\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN(":--1\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN(":00\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN(":-01\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN(":9223372036854775808\r\n"), "", NETIO_EPROTO, 20, 0},
        {IN(":-9223372036854775809\r\n"), "", NETIO_EPROTO, 21, 0},
        {IN(":92233720368547758070\r\n"), "", NETIO_EPROTO, 21, 0},
        {IN("$-2\r\n"), "", NETIO_EPROTO, 3, 0},
        {IN("$-10\r\n"), "", NETIO_EPROTO, 4, 0},
        {IN("$+1\r\na\r\n"), "", NETIO_EPROTO, 2, 0},
        {IN("+a\r\n$1\r\nab\r\n"), "+a|", NETIO_EPROTO, 10, 4},
        {IN("+a\r\n*2\r\n$1\r\na\r\n$1\r\nbX"), "+a|", NETIO_EPROTO, 21, 4},
        {IN("*2\r\n*2\r\n:1\r\n?"), "", NETIO_EPROTO, 13, 0},
    };
    // clang-format on
    ROWS(resp_replies(NULL, 0), rows);
}

//================================================================================================
// Limits: n passes, n + 1 does not
//================================================================================================

TEST(resp, commands_have_limits)
{
    // clang-format off
    static const row rows[] = {
        {IN("*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n"), "a,b,c,d|", NETIO_EOF, 0, 0},
        {IN("*5\r\n"), "", NETIO_EMSGSIZE, 2, 0},
        {IN("*18446744073709551617\r\n"), "", NETIO_EMSGSIZE, 3, 0},
        {IN("*1\r\n$9\r\n123456789\r\n"), "123456789|", NETIO_EOF, 0, 0},
        {IN("*1\r\n$9\r\n123456789\r\n*1\r\n$10\r\n"), "123456789|", NETIO_EMSGSIZE, 26, 19},
        {IN("*1\r\n$4294967297\r\n"), "", NETIO_EMSGSIZE, 7, 0},
        {IN("12345678\r\n"), "12345678|", NETIO_EOF, 0, 0},
        {IN("12345678\n123456789\n"), "12345678|", NETIO_EMSGSIZE, 18, 9},
    };
    // clang-format on
    ROWS(resp_commands(&tight, 0), rows);
}

TEST(resp, replies_have_limits)
{
    // clang-format off
    static const row rows[] = {
        {IN("$9\r\n123456789\r\n$10\r\n"), "$123456789|", NETIO_EMSGSIZE, 18, 15},
        {IN("+12345678\r\n-123456789\r\n"), "+12345678|", NETIO_EMSGSIZE, 21, 11},
        {IN("*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n*5\r\n"), "*(:1,:2,:3,:4)|", NETIO_EMSGSIZE, 22, 20},
        {IN("*2\r\n*2\r\n:1\r\n:2\r\n:3\r\n"), "*(*(:1,:2),:3)|", NETIO_EOF, 0, 0},
        {IN("*2\r\n*3\r\n"), "", NETIO_EMSGSIZE, 6, 0}, // five items in all
        {IN("*1\r\n*1\r\n*0\r\n"), "", NETIO_EMSGSIZE, 9, 0}, // in one another
    };
    // clang-format on
    ROWS(resp_replies(&tight, 0), rows);
}

// A frame whose data would be too large is refused as soon as that is certain: when each item that
// is still to come may be as short as there are.
TEST(resp, the_largest_data_is_exact)
{
    // clang-format off
    static const row commands[] = { // 24 bytes are enough for "*4" of empty strings, no more
        {IN("*4\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n"), ",,,|", NETIO_EOF, 0, 0},
        {IN("*4\r\n$0\r\n\r\n$1\r\n"), "", NETIO_EMSGSIZE, 14, 0},
        {IN("*5\r\n"), "", NETIO_EMSGSIZE, 4, 0},
        {IN("*2\r\n$0\r\n\r\n$11\r\n12345678901\r\n"), ",12345678901|", NETIO_EOF, 0, 0},
        {IN("*2\r\n$0\r\n\r\n$12\r\n123456789012\r\n"), "", NETIO_EMSGSIZE, 15, 0},
        {IN("123456789012345678901234\r\n"), "123456789012345678901234|", NETIO_EOF, 0, 0},
        {IN("1234567890123456789012345"), "", NETIO_EMSGSIZE, 25, 0},
    };
    static const row replies[] = {
        {IN("$24\r\n123456789012345678901234\r\n$25\r\n"), "$123456789012345678901234|",
         NETIO_EMSGSIZE, 36, 31},
        {IN("+123456789012345678901234\r\n"), "+123456789012345678901234|", NETIO_EOF, 0, 0},
        {IN("+1234567890123456789012345"), "", NETIO_EMSGSIZE, 26, 0},
        {IN("*2\r\n+\r\n+123456789012345678\r\n"), "*(+,+123456789012345678)|", NETIO_EOF, 0, 0},
        {IN("*2\r\n+\r\n+1234567890123456789"), "", NETIO_EMSGSIZE, 27, 0},
        {IN("*2\r\n+123456789012345678\r\n+\r\n"), "*(+123456789012345678,+)|", NETIO_EOF, 0, 0},
        {IN("*2\r\n+1234567890123456789"), "", NETIO_EMSGSIZE, 24, 0},
        {IN("*8\r\n:1\r\n"), "", NETIO_EMSGSIZE, 8, 0},
        {IN("*2\r\n*4\r\n+\r\n+\r\n+\r\n+\r\n:12345\r\n"), "*(*(+,+,+,+),:12345)|",
         NETIO_EOF, 0, 0},
        {IN("*2\r\n*4\r\n+\r\n+\r\n+\r\n+\r\n:123456\r\n"), "", NETIO_EMSGSIZE, 29, 0},
        {IN("*1\r\n$17\r\n12345678901234567\r\n"), "12345678901234567|", NETIO_EOF, 0, 0},
        {IN("*1\r\n$18\r\n"), "", NETIO_EMSGSIZE, 9, 0},
    };
    // clang-format on
    ROWS(resp_commands(NULL, 24), commands);
    ROWS(resp_replies(NULL, 24), replies);
}

// What a bad frame claimed to need is told.
TEST(resp, the_size_that_is_too_large_is_told)
{
    CHECK_EQ(10, read_all(resp_replies(&tight, 0), IN("$10\r\n"))->size);
    CHECK_EQ(25, read_all(resp_replies(NULL, 24), IN("$25\r\n"))->size);
    CHECK_EQ(9, read_all(resp_replies(&tight, 0), IN("+123456789"))->size);
    CHECK_EQ(30, read_all(resp_commands(NULL, 24), IN("*5\r\n"))->size);
}

// The default is 1 MiB, and no field of a header makes memory grow before its bytes are there.
TEST(resp, memory_grows_with_what_arrived)
{
    netio_decoder d;
    netio_frame f;
    long before = test_allocs();
    CHECK_OK(netio_decoder_init(&d, resp_replies(NULL, 0), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, "$500000\r\n0123456789", 19));
    CHECK_OK(netio_decoder_next(&d, &f));
    CHECK(d.cap <= 512); // private: memory is what this is about
    CHECK(test_allocs() - before <= 2);
    netio_decoder_free(&d);
    CHECK_ERR(NETIO_EMSGSIZE, read_all(resp_replies(NULL, 0), IN("$524289\r\n"))->err);
    CHECK_ERR(NETIO_EMSGSIZE, read_all(resp_commands(NULL, 0), IN("*1025\r\n"))->err);
    CHECK_ERR(NETIO_ETRUNCATED, read_all(resp_commands(NULL, 0), IN("*1024\r\n"))->err);
}

// Limits beyond all memory are as good as none, and overflow nothing.
TEST(resp, limits_may_be_as_large_as_numbers_go)
{
    static const resp_limits none = {SIZE_MAX, SIZE_MAX, SIZE_MAX, 1000};
    // clang-format off
    static const row rows[] = {
        {IN("$1\r\na\r\n$4611686018427387905\r\n"), "$a|", NETIO_EMSGSIZE, 0, 7},
        {IN("$1\r\na\r\n$99999999999999999999999999\r\n"), "$a|", NETIO_EMSGSIZE, 0, 7},
        {IN("*4294967296\r\n"), "", NETIO_EMSGSIZE, 0, 0},
        {IN("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+deep\r\n"),
         "*(*(*(*(*(*(*(*(+deep))))))))|", NETIO_EOF, 0, 0},
        {IN("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*"), "", NETIO_EMSGSIZE, 0, 0},
    };
    // clang-format on
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tale *t = read_all(resp_replies(&none, SIZE_MAX), rows[i].bytes, rows[i].len);
        CHECK_STR(rows[i].frames, t->text);
        CHECK_ERR(rows[i].err, t->err);
    }
}

//================================================================================================
// Looking into frames
//================================================================================================

TEST(resp, arguments_have_a_limit_and_belong_to_commands)
{
    static const struct {
        const char *bytes;
        ptrdiff_t want; // with room for three
    } rows[] = {
        {"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n", 3},
        {"*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n", NETIO_ENOSPC},
        {"a b c\r\n", 3},
        {" a b c d\r\n", NETIO_ENOSPC},
        {"+a\r\n", NETIO_EINVAL},
        {"*1\r\n:1\r\n", NETIO_EINVAL},
        {"*1\r\n*1\r\n$1\r\na\r\n", NETIO_EINVAL},
        {"*-1\r\n", NETIO_EINVAL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_decoder d;
        netio_frame f;
        netio_buf args[3];
        bool typed = strchr("*+", rows[i].bytes[0]) == NULL;
        netio_framing framing = typed ? resp_commands(NULL, 0) : resp_replies(NULL, 0);
        CHECK_OK(netio_decoder_init(&d, framing, NULL, 0));
        CHECK_OK(netio_decoder_feed(&d, rows[i].bytes, strlen(rows[i].bytes)));
        CHECK_ERR(1, netio_decoder_next(&d, &f));
        CHECK_ERR(rows[i].want, resp_args(&f, args, 3));
        if (rows[i].want == 3) CHECK_MEM("b", args[1].data, args[1].len);
        netio_decoder_free(&d);
    }
}

TEST(resp, integers_are_strict)
{
    static const char *const bad[] = {"",
                                      "-",
                                      "+1",
                                      "01",
                                      "-0",
                                      "-01",
                                      " 1",
                                      "1 ",
                                      "0x1",
                                      "1.0",
                                      "--1",
                                      "1\r",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "111111111111111111111"};
    static const struct {
        const char *text;
        int64_t want;
    } good[] = {{"0", 0},
                {"-1", -1},
                {"10", 10},
                {"9223372036854775807", INT64_MAX},
                {"-9223372036854775808", INT64_MIN}};
    int64_t n = 77;
    char head[RESP_HEAD_MAX];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(!resp_integer(bad[i], strlen(bad[i]), &n) && n == 77);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        size_t len = strlen(good[i].text);
        CHECK(resp_integer(good[i].text, len, &n));
        CHECK(n == good[i].want);
        CHECK_EQ(len + 3, resp_put_head(head, RESP_INTEGER, n));
        CHECK_MEM(good[i].text, head + 1, len);
        CHECK_MEM("\r\n", head + 1 + len, 2);
    }
}

//================================================================================================
// Writing
//================================================================================================

static netio_frame frame_of(unsigned type, const void *data, size_t len)
{
    netio_frame f;
    memset(&f, 0, sizeof f);
    f.type = type;
    f.data = (const uint8_t *)data;
    f.len = len;
    return f;
}

// Written, read back by the decoder, and the same.
static void check_round(netio_framing framing, unsigned type, const void *data, size_t len)
{
    static char wire[1 << 17];
    netio_frame f = frame_of(type, data, len), back;
    netio_decoder d;
    ptrdiff_t n = netio_encode_into(wire, sizeof wire, &framing, &f);
    CHECK(n > 0);
    CHECK_OK(netio_decoder_init(&d, framing, NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, wire, (size_t)n));
    CHECK_ERR(1, netio_decoder_next(&d, &back));
    CHECK_EQ(type ? type : RESP_BULK, back.type);
    CHECK_EQ(len, back.len);
    CHECK_MEM(data, back.data, len);
    CHECK_ERR(0, netio_decoder_next(&d, &back));
    netio_decoder_free(&d);
}

TEST(resp, what_is_written_is_read_back)
{
    static char items[1 << 16], payload[40000];
    uint32_t state = 1;
    for (int i = 0; i < 300; i++) {
        netio_buf args[12];
        size_t count = 1 + test_random(&state) % 12, at = 0;
        test_fill(payload, sizeof payload, test_random(&state));
        check_round(resp_replies(NULL, 0), 0, payload, test_random(&state) % sizeof payload);
        for (size_t k = 0; k < count; k++, at += args[k - 1].len) {
            args[k].data = payload + at;
            args[k].len = test_random(&state) % (test_random(&state) % 4 ? 20 : 3000);
        }
        ptrdiff_t n = resp_put_args(items, sizeof items, args, count);
        CHECK(n > 0);
        CHECK_ERR(NETIO_ENOSPC, resp_put_args(items, (size_t)n - 1, args, count));
        n = resp_put_args(items, (size_t)n, args, count);
        check_round(resp_commands(NULL, 0), RESP_ARRAY, items, (size_t)n);
        check_round(resp_replies(NULL, 0), RESP_ARRAY, items, (size_t)n);
    }
    check_round(resp_replies(NULL, 0), RESP_STRING, IN("OK"));
    check_round(resp_replies(NULL, 0), RESP_STRING, IN(""));
    check_round(resp_replies(NULL, 0), RESP_ERROR, IN("ERR no"));
    check_round(resp_replies(NULL, 0), RESP_INTEGER, IN("-42"));
    check_round(resp_replies(NULL, 0), RESP_NULL, IN(""));
    check_round(resp_replies(NULL, 0), RESP_ARRAY, IN(""));
    check_round(resp_replies(NULL, 0), RESP_ARRAY, IN("*1\r\n*0\r\n+a\r\n:1\r\n$-1\r\n"));
    check_round(resp_commands(NULL, 0), RESP_INLINE, IN("PING hello"));
}

TEST(resp, what_would_not_be_read_back_is_not_written)
{
    // clang-format off
    static const struct {
        unsigned type;
        const char *data;
        size_t len;
        int want;
    } rows[] = {
        {RESP_STRING, IN("a\nb"), NETIO_EINVAL},      {RESP_ERROR, IN("a\r"), NETIO_EINVAL},
        {RESP_INTEGER, IN(""), NETIO_EINVAL},         {RESP_INTEGER, IN("x"), NETIO_EINVAL},
        {RESP_INTEGER, IN("1\r\n+OK"), NETIO_EINVAL}, {RESP_NULL, IN("a"), NETIO_EINVAL},
        {RESP_ARRAY, IN("a"), NETIO_EINVAL},          {RESP_ARRAY, IN("+a\r"), NETIO_EINVAL},
        {RESP_ARRAY, IN("$5\r\nhell"), NETIO_EINVAL}, {RESP_ARRAY, IN("*1\r\n"), NETIO_EINVAL},
        {RESP_INLINE, IN(""), NETIO_EINVAL},          {RESP_INLINE, IN("  "), NETIO_EINVAL},
        {RESP_INLINE, IN("*1"), NETIO_EINVAL},        {RESP_INLINE, IN("a\nQUIT"), NETIO_EINVAL},
        {RESP_INLINE, IN("a\r"), NETIO_EINVAL},       {RESP_INLINE, IN("\x01"), NETIO_EINVAL},
        {'#', IN("a"), NETIO_EINVAL},                 {'?', IN("a"), NETIO_EINVAL},
        {RESP_BULK, IN("12345678901234567890123456"), NETIO_EMSGSIZE},
    };
    // clang-format on
    netio_framing framing = resp_commands(NULL, 25);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char wire[64];
        netio_frame f = frame_of(rows[i].type, rows[i].data, rows[i].len);
        CHECK_ERR(rows[i].want, netio_encode_into(wire, sizeof wire, &framing, &f));
    }
}

//================================================================================================
// The same value on a decoder, a blocking stream, and a connection
//================================================================================================

// Many commands, or replies; then perhaps a bad byte.
static size_t make_stream(char *out, size_t cap, bool commands, bool bad)
{
    static const char *const replies[] = {"+OK\r\n", "$5\r\nhello\r\n", ":-12\r\n", "*-1\r\n",
                                          "*2\r\n*1\r\n+a\r\n$3\r\n\r\n\r\r\n"};
    netio_framing framing = resp_commands(NULL, 0);
    char big[3000], items[4000];
    size_t len = 0;
    test_fill(big, sizeof big, 7);
    for (size_t i = 0; i < 40; i++) {
        netio_buf args[] = {{"SET", 3}, {"key", i % 4}, {big, i % 8 == 0 ? sizeof big : i}};
        ptrdiff_t n = resp_put_args(items, sizeof items, args, 3);
        netio_frame f = frame_of(RESP_ARRAY, items, (size_t)n);
        n = netio_encode_into(out + len, cap - len, &framing, &f);
        CHECK(n > 0);
        len += (size_t)n;
        const char *more = commands ? "PING x\r\n" : replies[i % 5];
        memcpy(out + len, more, strlen(more));
        len += strlen(more);
    }
    if (bad) out[len++] = commands ? '\0' : 'x';
    return len;
}

static int over_stream(cuts *c, netio_framing framing, const char *data, size_t len)
{
    netio_socket s[2];
    netio_decoder d;
    netio_frame f;
    int err;
    test_tcp_pair(&s[0], &s[1]);
    netio_stream to = netio_stream_from_socket(s[0]), from = netio_stream_from_socket(s[1]);
    memset(c, 0, sizeof *c);
    CHECK_OK(netio_stream_send_all(&to, data, len, NULL, 5000));
    CHECK_OK(netio_stream_shutdown(&to, 5000));
    CHECK_OK(netio_decoder_init(&d, framing, NULL, 0));
    while ((err = netio_stream_read_frame(&from, &d, &f, 5000)) == 0) cuts_say_frame(c, &f);
    netio_decoder_free(&d);
    CHECK_OK(netio_stream_close(&to));
    CHECK_OK(netio_stream_close(&from));
    return err;
}

static void on_frame(netio_conn c, const netio_frame *f)
{
    cuts_say_frame((cuts *)end_of(c)->arg, f);
}

static int over_connection(cuts *c, netio_framing framing, const char *data, size_t len)
{
    static netio_handler framed;
    static duo d;
    int err;
    framed = end_all;
    framed.on_frame = on_frame;
    memset(c, 0, sizeof *c);
    duo_init(&d);
    d.b.arg = c;
    d.listen.conn.framing = framing;
    duo_open(&d, &end_all, &framed);
    for (size_t at = 0; at < len;) { // several pieces, each in a turn of its own
        size_t n = len - at < 777 ? len - at : 777;
        CHECK_OK(CALL(netio_conn_write(d.a.c, data + at, n)));
        RUN_UNTIL(d.loop, netio_conn_pending(d.a.c) == 0);
        at += n;
    }
    CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
    RUN_UNTIL(d.loop, d.b.ended || d.b.closed);
    err = d.b.closed ? d.b.error.err : (int)NETIO_EOF;
    duo_close(&d);
    return err;
}

TEST(resp, decoder_stream_and_connection_tell_the_same)
{
    static char data[1 << 16];
    static cuts whole, other;
    for (int i = 0; i < 4; i++) {
        bool commands = i % 2 == 0, bad = i / 2 == 1;
        size_t len = make_stream(data, sizeof data, commands, bad);
        netio_framing framing = commands ? resp_commands(NULL, 0) : resp_replies(NULL, 0);
        start(framing);
        run.end = !bad;
        cuts_run(&run, data, len, 0, 0);
        whole = run;
        CHECK_EQ(80, whole.frames);
        CHECK_ERR(bad ? NETIO_EPROTO : NETIO_EOF, whole.err);
        if (strstr(whole.log, "error")) *strstr(whole.log, "error") = 0;
        CHECK_ERR(whole.err, over_stream(&other, framing, data, len));
        CHECK_STR(whole.log, other.log);
        CHECK_ERR(whole.err, over_connection(&other, framing, data, len));
        CHECK_STR(whole.log, other.log);
    }
}

// A client with a blocking stream asks a connection that answers, many commands at once.
static void on_command(netio_conn c, const netio_frame *f)
{
    netio_buf args[4];
    ptrdiff_t n = resp_args(f, args, 4);
    netio_frame reply = frame_of(RESP_ERROR, IN("ERR no"));
    if (n == 2) reply = frame_of(RESP_BULK, args[1].data, args[1].len);
    int err = netio_conn_send_frame(c, &reply);
    if (err < 0) abort();
}

static void ask(void *arg)
{
    netio_framing framing = resp_replies(NULL, 0);
    char items[64];
    netio_socket s;
    netio_decoder d;
    netio_frame f;
    int right = 0;
    if (netio_connect(&s, (const char *)arg, NULL, 5000) < 0) return;
    netio_stream st = netio_stream_from_socket(s);
    netio_decoder_init(&d, framing, NULL, 0);
    for (int i = 0; i < 100; i++) {
        netio_buf args[] = {{"ECHO", 4}, {"\0\r\n", 3}};
        ptrdiff_t n = resp_put_args(items, sizeof items, args, i % 10 ? 2 : 1);
        f = frame_of(RESP_ARRAY, items, (size_t)n);
        if (netio_stream_write_frame(&st, &framing, &f, 5000) < 0) break;
    }
    for (int i = 0; i < 100 && netio_stream_read_frame(&st, &d, &f, 5000) == 0; i++)
        right += f.type == (i % 10 ? RESP_BULK : RESP_ERROR) && f.len == (i % 10 ? 3 : 6);
    netio_decoder_free(&d);
    netio_stream_close(&st);
    ((char *)arg)[0] = right == 100 ? 'y' : 'n'; // read after the thread has ended
}

static void on_over(netio_conn c, int err)
{
    (void)err;
    netio_loop_stop(netio_conn_loop(c));
}

TEST(resp, a_stream_asks_and_a_connection_answers)
{
    static const netio_handler handler = {.on_frame = on_command, .on_close = on_over};
    netio_listener_opts opts;
    netio_listener listener;
    netio_loop *loop;
    netio_addr local;
    char text[NETIO_ADDR_TEXT];
    test_thread t;
    memset(&opts, 0, sizeof opts);
    opts.conn.framing = resp_commands(NULL, 0);
    CHECK_OK(netio_loop_create(&loop, NULL));
    CHECK_OK(netio_listener_open(&listener, loop, "127.0.0.1:0", &handler, &opts));
    CHECK_OK(netio_listener_addr(listener, &local));
    CHECK(netio_addr_format(&local, text, sizeof text) > 0);
    test_thread_start(&t, ask, text);
    CHECK_OK(netio_loop_run(loop));
    test_thread_join(&t);
    CHECK_EQ('y', text[0]);
    CHECK_OK(netio_loop_destroy(loop));
}

TEST_MAIN("resp", T(resp, commands_are_read), T(resp, replies_are_read),
          T(resp, malformed_commands_fail_at_their_byte),
          T(resp, malformed_replies_fail_at_their_byte), T(resp, commands_have_limits),
          T(resp, replies_have_limits), T(resp, the_largest_data_is_exact),
          T(resp, the_size_that_is_too_large_is_told), T(resp, memory_grows_with_what_arrived),
          T(resp, limits_may_be_as_large_as_numbers_go),
          T(resp, arguments_have_a_limit_and_belong_to_commands), T(resp, integers_are_strict),
          T(resp, what_is_written_is_read_back),
          T(resp, what_would_not_be_read_back_is_not_written),
          T(resp, decoder_stream_and_connection_tell_the_same),
          T(resp, a_stream_asks_and_a_connection_answers))
