// HTTP/1.x heads, chunked bodies, SHA-1 and base64: what RFC 9112 allows is read, what two parsers
// could read in two ways is refused.
#include "cuts.h"

//================================================================================================
// Tools
//================================================================================================

static netio_http_head head;

static int parse(const char *text) { return netio_http_parse(&head, text, strlen(text)); }

static void check_buf(const char *file, int line, const char *want, netio_buf got)
{
    char text[256];
    size_t n = got.len < sizeof text ? got.len : sizeof text - 1;
    if (!got.data) test_fail(file, line, "there is none, instead of \"%s\"", want);
    memcpy(text, got.data, n);
    text[n] = 0;
    test_check_str(file, line, "netio_buf", want, text);
}
#define CHECK_BUF(want, got) check_buf(__FILE__, __LINE__, want, got)

static void check_verdict(const char *text, int want)
{
    int got = parse(text);
    if (got != want)
        test_fail(__FILE__, __LINE__, "%s instead of %s: %s", netio_errname(got),
                  netio_errname(want), text);
}

//================================================================================================
// Heads
//================================================================================================

TEST(http, parse_reads_a_request)
{
    CHECK_OK(parse("GET /a/b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nAccept:  text/html \t\r\n"
                   "X-Empty:\r\nx-obs: caf\xc3\xa9\r\n\r\n"));
    CHECK_EQ(0, head.status);
    CHECK_EQ(1, head.minor);
    CHECK_BUF("GET", head.method);
    CHECK_BUF("/a/b?c=d", head.target);
    CHECK_EQ(4, head.field_count);
    CHECK_BUF("Host", head.names[0]);
    CHECK_BUF("example.com:8080", head.values[0]);
    CHECK_BUF("text/html", head.values[1]);
    CHECK_BUF("", head.values[2]);
    CHECK_BUF("caf\xc3\xa9", head.values[3]);
    CHECK_EQ(-1, head.content_length);
    CHECK(!head.chunked && head.keep_alive && !head.upgrade_websocket);
}

TEST(http, parse_reads_a_response)
{
    CHECK_OK(parse("HTTP/1.0 404 Not Found at all\r\nContent-Length: 12\r\n\r\n"));
    CHECK_EQ(404, head.status);
    CHECK_EQ(0, head.minor);
    CHECK_BUF("Not Found at all", head.reason);
    CHECK_EQ(12, head.content_length);
    CHECK(!head.keep_alive && !head.method.data && !head.target.data);
    CHECK_OK(parse("HTTP/1.1 200 \r\n\r\n"));
    CHECK_EQ(0, head.reason.len);
    CHECK_OK(parse("HTTP/1.1 200\r\n\r\n"));
    CHECK_EQ(200, head.status);
}

TEST(http, parse_takes_a_head_without_its_empty_line)
{
    CHECK_OK(parse("GET / HTTP/1.1\r\nHost: a\r\n"));
    CHECK_EQ(1, head.field_count);
    CHECK_OK(parse("HTTP/1.1 204 No Content\r\n"));
    CHECK_EQ(0, head.field_count);
    CHECK_ERR(NETIO_EPROTO, parse("GET / HTTP/1.1\r\nHost: a"));
    CHECK_ERR(NETIO_EPROTO, parse("GET / HTTP/1.1"));
    CHECK_ERR(NETIO_EPROTO, parse(""));
    CHECK_ERR(NETIO_EPROTO, netio_http_parse(&head, NULL, 0));
}

TEST(http, parse_takes_what_the_grammar_allows)
{
    static const char *const good[] = {
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhOsT:a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.7\r\nHost: a\r\n\r\n",
        "GET //a//b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n",
        "get / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
        "!#$%&'*+-.^_`|~09AZaz / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 12345\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a_b.%41-c~;(x)\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX:\t a \t b\t \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a:b: c\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0042\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tCHUNKED \r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 599 \xff\xfe reasons\there\r\n\r\n",
        "HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) check_verdict(good[i], 0);
}

// Each line is a way in which two parsers were once made to disagree, or one that the RFC forbids.
TEST(http, parse_refuses_what_smugglers_use)
{
    static const char *const bad[] = {
        // line ends: RFC 9112 section 2.2
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nx",
        // request line: section 3
        "GET /\r\n\r\n",
        "GET / \r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET / a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        " / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET: / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET :// HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT :80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT u@a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1,1\r\nHost: a\r\n\r\n",
        "GET / HTTP /1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "\x16\x03\x01\x02\r\n\r\n",
        // status line: section 4
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 \r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1 600 x\r\n\r\n",
        "HTTP/1.1 2x0 x\r\n\r\n",
        "HTTP/1.1  200 x\r\n\r\n",
        "HTTP/1.1\t200 x\r\n\r\n",
        "HTTP/1.1 200x\r\n\r\n",
        "HTTP/1.1 +20 x\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/2.0 200 x\r\n\r\n",
        "HTTP 200 x\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 a\x01\r\n\r\n",
        // fields: section 5
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\x0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
        // where it goes: section 3.2
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a|b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [a]\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: caf\xc3\xa9\r\n\r\n",
        // how long it is: section 6
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5;a=b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_000\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        "Transfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        "Transfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0b"
        "chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0c\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) check_verdict(bad[i], NETIO_EPROTO);
}

TEST(http, parse_refuses_a_nul_anywhere)
{
    char text[] = "GET /ab HTTP/1.1\r\nHost: abc\r\nX-Y: cd\r\n\r\n";
    for (size_t i = 0; i < sizeof text - 1; i++) {
        char was = text[i];
        text[i] = 0;
        CHECK_ERR(NETIO_EPROTO, netio_http_parse(&head, text, sizeof text - 1));
        text[i] = was;
    }
    CHECK_OK(netio_http_parse(&head, text, sizeof text - 1));
}

TEST(http, parse_refuses_every_cut_head)
{
    static const char text[] = "GET /ab HTTP/1.1\r\nHost: abc\r\nX-Y: cd\r\n\r\n";
    for (size_t len = 0; len < sizeof text - 1; len++) {
        // Whole lines are a head without its empty line.
        bool lines = len == 29 || len == 38;
        char *exact = (char *)malloc(len + 1); // ASan sees a byte too far
        if (!exact) abort();
        memcpy(exact, text, len);
        CHECK_ERR(lines ? 0 : NETIO_EPROTO, netio_http_parse(&head, len ? exact : NULL, len));
        free(exact);
    }
}

TEST(http, parse_keeps_64_fields_and_not_65)
{
    for (int count = 63; count <= 65; count++) {
        char text[2048];
        int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\n");
        for (int i = 0; i < count; i++)
            n += snprintf(text + n, sizeof text - (size_t)n, "F%d: %d\r\n", i, i);
        n += snprintf(text + n, sizeof text - (size_t)n, "\r\n");
        CHECK_ERR(count > NETIO_HTTP_FIELDS ? NETIO_EMSGSIZE : 0,
                  netio_http_parse(&head, text, (size_t)n));
        if (count > NETIO_HTTP_FIELDS) continue;
        CHECK_EQ(count, head.field_count);
        CHECK_BUF("62", netio_http_field(&head, "f62"));
    }
}

TEST(http, parse_reads_lengths_up_to_63_bits)
{
    CHECK_OK(parse("HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n"));
    CHECK(head.content_length == INT64_MAX);
    CHECK_OK(parse("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    CHECK_EQ(0, head.content_length);
    CHECK_OK(parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
    CHECK(head.chunked && head.content_length == -1);
}

TEST(http, parse_tells_whether_the_connection_stays)
{
    static const struct {
        const char *text;
        bool stays;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo ,\tCLOSE\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: a\r\nX-Connection: close\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\n\r\n", true},
        {"HTTP/1.0 200 OK\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\nconnection:close\r\n\r\n", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_verdict(rows[i].text, 0);
        if (head.keep_alive != rows[i].stays) test_fail(__FILE__, __LINE__, "%s", rows[i].text);
    }
}

TEST(http, field_is_found_in_any_case_and_the_first_counts)
{
    netio_buf none;
    CHECK_OK(parse("HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSET-COOKIE: b\r\nX: \r\n\r\n"));
    CHECK_BUF("a", netio_http_field(&head, "set-cookie"));
    CHECK_BUF("a", netio_http_field(&head, "Set-Cookie"));
    CHECK_BUF("", netio_http_field(&head, "x"));
    none = netio_http_field(&head, "set");
    CHECK(!none.data && none.len == 0);
    CHECK(!netio_http_field(&head, "set-cookie2").data);
    CHECK(!netio_http_field(&head, "").data);
}

TEST(http, field_has_looks_into_all_lists)
{
    CHECK_OK(parse("HTTP/1.1 200 OK\r\nVary: a, B ,,\tc\r\nVary: d;q=1\r\nX: , ,\r\n\r\n"));
    CHECK(netio_http_field_has(&head, "vary", "a"));
    CHECK(netio_http_field_has(&head, "VARY", "b"));
    CHECK(netio_http_field_has(&head, "vary", "C"));
    CHECK(netio_http_field_has(&head, "vary", "d;q=1"));
    CHECK(!netio_http_field_has(&head, "vary", "d"));
    CHECK(!netio_http_field_has(&head, "vary", "a, B"));
    CHECK(!netio_http_field_has(&head, "vary", ""));
    CHECK(!netio_http_field_has(&head, "x", "a"));
    CHECK(!netio_http_field_has(&head, "y", "a"));
}

TEST(http, buf_equal_is_exact)
{
    netio_buf a = {"abc", 3}, none = {NULL, 0}, empty = {"", 0};
    CHECK(netio_buf_equal(a, "abc"));
    CHECK(!netio_buf_equal(a, "ab"));
    CHECK(!netio_buf_equal(a, "abcd"));
    CHECK(!netio_buf_equal(a, "ABC"));
    CHECK(netio_buf_equal(empty, ""));
    CHECK(!netio_buf_equal(none, ""));
}

TEST(http, add_puts_a_field_before_the_empty_line)
{
    char text[128] = "HTTP/1.1 200 OK\r\n\r\n";
    ptrdiff_t n = netio_http_add(text, sizeof text, strlen(text), "A", "1");
    n = netio_http_add(text, sizeof text, (size_t)n, "B-c", "");
    n = netio_http_add(text, sizeof text, (size_t)n, "D", "caf\xc3\xa9\tx");
    CHECK_STR("HTTP/1.1 200 OK\r\nA: 1\r\nB-c: \r\nD: caf\xc3\xa9\tx\r\n\r\n", text);
    CHECK_EQ(strlen(text), n);
    CHECK_OK(parse(text));
    CHECK_BUF("1", netio_http_field(&head, "a"));
}

TEST(http, add_lets_nothing_in_that_breaks_a_head)
{
    static const struct {
        const char *name, *value;
    } bad[] = {{"", "x"},      {"a b", "x"},   {"a:", "x"},  {"a\r\nb", "x"}, {"a\n", "x"},
               {"a", "x\r\n"}, {"a", "x\ny"},  {"a", "\rx"}, {"a", "x\x01"},  {"a", "\x7f"},
               {"\xc3", "x"},  {"a", "x\n\n"}, {"a ", "x"},  {" a", "x"}};
    char text[128] = "HTTP/1.1 200 OK\r\n\r\n", before[128];
    memcpy(before, text, sizeof text);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_ERR(NETIO_EINVAL,
                  netio_http_add(text, sizeof text, strlen(text), bad[i].name, bad[i].value));
    CHECK_ERR(NETIO_EINVAL, netio_http_add(text, sizeof text, strlen(text) - 1, "a", "b"));
    CHECK_ERR(NETIO_EINVAL, netio_http_add(text, sizeof text, 3, "a", "b"));
    CHECK_ERR(NETIO_EINVAL, netio_http_add(text, sizeof text, 0, "a", "b"));
    CHECK_MEM(before, text, sizeof text);
    // "a: b" takes 6 bytes, and there is a NUL: 26 are exactly enough.
    CHECK_ERR(NETIO_ENOSPC, netio_http_add(text, 25, strlen(text), "a", "b"));
    CHECK_MEM(before, text, sizeof text);
    CHECK_EQ(25, netio_http_add(text, 26, strlen(text), "a", "b"));
    CHECK_STR("HTTP/1.1 200 OK\r\na: b\r\n\r\n", text);
}

//================================================================================================
// Heads as they come
//================================================================================================

static cuts run;

static void start(netio_framing framing, bool end)
{
    memset(&run, 0, sizeof run);
    run.framing = framing;
    run.end = end;
}

TEST(http, head_is_the_same_for_every_cut)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
                               "\r\nPOST /x HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n"
                               "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    char want[256];
    start(netio_framing_http_head(100), true);
    cuts_all(&run, text, sizeof text - 1);
    snprintf(want, sizeof want,
             "[0 +27 %08x type 0 more 0 later 0]\n[29 +48 %08x type 0 more 0 later 0]\n"
             "[81 +19 %08x type 0 more 0 later 0]\nerror %d at 100 size 0\n",
             (unsigned)netio_crc32(0, text, 27), (unsigned)netio_crc32(0, text + 29, 48),
             (unsigned)netio_crc32(0, text + 81, 19), -NETIO_EOF);
    CHECK_STR(want, run.log);
}

TEST(http, head_of_max_bytes_passes_and_of_one_more_not)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    size_t len = sizeof text - 1;
    char buf[64];
    for (size_t max = len - 2; max <= len; max++) {
        for (int own = 0; own < 2; own++) {
            start(netio_framing_http_head(max), false);
            run.buf = own ? NULL : buf;
            run.cap = sizeof buf;
            cuts_all(&run, text, len);
            CHECK_ERR(max < len ? NETIO_EMSGSIZE : 0, run.err);
            if (max < len) CHECK_EQ(max, cuts_error_at(&run, text, len));
        }
    }
}

TEST(http, head_without_an_end_never_needs_more_than_max)
{
    static char text[100000];
    netio_decoder d;
    netio_frame f;
    uint64_t announced = 0;
    memset(text, 'a', sizeof text);
    start(netio_framing_http_head(1000), false);
    cuts_run(&run, text, sizeof text, 0, 7);
    CHECK_ERR(NETIO_EMSGSIZE, run.err);
    CHECK_BETWEEN(1000, 1006, run.fed);
    CHECK(strstr(run.log, "at 0 size 1001") != NULL);
    CHECK_OK(netio_decoder_init(&d, netio_framing_http_head(0), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, text, sizeof text));
    CHECK_ERR(NETIO_EMSGSIZE, netio_decoder_next(&d, &f));
    netio_decoder_blame(&d, NULL, &announced);
    CHECK_EQ(4097, announced); // 4 KiB is the usual maximum
    netio_decoder_free(&d);
}

TEST(http, head_fails_at_its_first_bad_byte)
{
    static const struct {
        const char *text;
        size_t len, at; // bytes that had to be there
    } rows[] = {
        {"\x16\x03\x01", 3, 1},
        {"G\0T / HTTP/1.1\r\n\r\n", 18, 2},
        {"GET / HTTP/1.1\n\n", 16, 15},
        {"GET / HTTP/1.1\r\nHost: a\n\r\n", 26, 24},
        {"GET / HTTP/1.1\rHost: a\r\n\r\n", 26, 16},
        {"GET / HTTP/1.1\r\nA: b\r\r\n\r\n", 26, 22},
        {"GET / HTTP/1.1\r\nA: b\r\n\rX", 25, 24},
        {"GET / HTTP/1.1\r\nA: b\r\n\n", 24, 23},
        {"\nGET / HTTP/1.1\r\n\r\n", 19, 1},
        {"\rGET / HTTP/1.1\r\n\r\n", 19, 2},
        {"\r\n\r\r", 4, 4},
        {"GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", 25, 20},
        {"GET / HTTP/1.1\r\n\r\n\1", 19, 19},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        start(netio_framing_http_head(0), true);
        cuts_all(&run, rows[i].text, rows[i].len);
        CHECK_ERR(NETIO_EPROTO, run.err);
        CHECK_EQ(rows[i].at, cuts_error_at(&run, rows[i].text, rows[i].len));
    }
}

TEST(http, head_cut_off_by_the_end_is_truncated)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (size_t len = 1; len < sizeof text - 1; len++) {
        start(netio_framing_http_head(0), true);
        cuts_all(&run, text, len);
        CHECK_ERR(NETIO_ETRUNCATED, run.err);
    }
    start(netio_framing_http_head(0), true);
    cuts_all(&run, "\r\n", 2);
    CHECK_ERR(NETIO_EOF, run.err);
}

TEST(http, head_is_sent_as_it_is)
{
    netio_framing framing = netio_framing_http_head(0);
    netio_frame f = {0};
    netio_envelope e;
    f.data = (const uint8_t *)"GET / HTTP/1.0\r\n\r\n";
    f.len = 18;
    CHECK_OK(netio_encode(&e, &framing, &f));
    CHECK(e.head_len == 0 && e.tail_len == 0);
}

//================================================================================================
// Chunked bodies
//================================================================================================

TEST(http, chunked_body_is_the_same_for_every_cut)
{
    static const char text[] = "4\r\nWiki\r\n6\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\n"
                               "00a;x;y=z\r\n0123456789\r\n000\r\nA: b\r\n\r\n";
    char want[512], buf[64];
    start(netio_framing_chunked(14), true);
    run.buf = buf;
    run.cap = sizeof buf;
    cuts_all(&run, text, sizeof text - 1);
    snprintf(want, sizeof want,
             "[0 +4 %08x type 0 more 0 later 0]\n[9 +6 %08x type 0 more 0 later 0]\n"
             "[20 +14 %08x type 0 more 0 later 0]\n"
             "[39 +0 00000000 type 0 more 0 later 0 header +0 00000000]\n"
             "[44 +10 %08x type 0 more 0 later 0]\n"
             "[67 +0 00000000 type 0 more 0 later 0 header +6 %08x]\nerror %d at 80 size 0\n",
             (unsigned)netio_crc32(0, "Wiki", 4), (unsigned)netio_crc32(0, "pedia ", 6),
             (unsigned)netio_crc32(0, "in \r\n\r\nchunks.", 14),
             (unsigned)netio_crc32(0, "0123456789", 10), (unsigned)netio_crc32(0, "A: b\r\n", 6),
             -NETIO_EOF);
    CHECK_STR(want, run.log);
}

TEST(http, chunked_takes_every_extension_of_the_grammar)
{
    static const char *const good[] = {"3;a\r\n",
                                       "3;a=b\r\n",
                                       "3 ;a\r\n",
                                       "3\t ; a\r\n",
                                       "3;a = b\r\n",
                                       "3;a=\"\"\r\n",
                                       "3;a=\"b c\"\r\n",
                                       "3;a=\"\\\"\"\r\n",
                                       "3;a=\"\\\\\"\r\n",
                                       "3;a=\";\"\r\n",
                                       "3;a;b;c=d\r\n",
                                       "3;a=b ;c\r\n",
                                       "3;a=\"b\" ;c\r\n",
                                       "3;a=\"\xc3\xa9\t\"\r\n",
                                       "3;a\t=\t\"b\"\r\n",
                                       "3;!#$%&'*+-.^_`|~=0\r\n",
                                       "0000000000000000000000000000000003\r\n"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char text[128];
        int n = snprintf(text, sizeof text, "%sabc\r\n0\r\n\r\n", good[i]);
        start(netio_framing_chunked(0), true);
        cuts_all(&run, text, (size_t)n);
        if (run.frames != 2 || run.err != NETIO_EOF) test_fail(__FILE__, __LINE__, "%s", good[i]);
    }
}

// `at`: the bytes that had to be there for it to show.
TEST(http, chunked_fails_at_its_first_bad_byte)
{
    static const struct {
        const char *text;
        size_t at;
        int err;
    } rows[] = {
        {"\r\n", 1, NETIO_EPROTO},
        {"\n", 1, NETIO_EPROTO},
        {"g\r\n", 1, NETIO_EPROTO},
        {" 3\r\nabc\r\n", 1, NETIO_EPROTO},
        {"-3\r\nabc\r\n", 1, NETIO_EPROTO},
        {"+3\r\nabc\r\n", 1, NETIO_EPROTO},
        {"0x3\r\nabc\r\n", 2, NETIO_EPROTO},
        {"3h\r\nabc\r\n", 2, NETIO_EPROTO},
        {"3_\r\nabc\r\n", 2, NETIO_EPROTO},
        {"3\nabc\r\n", 2, NETIO_EPROTO},
        {"3\rabc\r\n", 3, NETIO_EPROTO},
        {"3\r\r\nabc\r\n", 3, NETIO_EPROTO},
        {"3 \r\nabc\r\n", 3, NETIO_EPROTO},
        {"3 3\r\nabc\r\n", 3, NETIO_EPROTO},
        {"3\x0b\r\nabc\r\n", 2, NETIO_EPROTO},
        {"3,3\r\n", 2, NETIO_EPROTO},
        {";a\r\n", 1, NETIO_EPROTO},
        {"3;\r\nabc\r\n", 3, NETIO_EPROTO},
        {"3;;a\r\nabc\r\n", 3, NETIO_EPROTO},
        {"3;a\nabc\r\n", 4, NETIO_EPROTO},
        {"3;a=\r\nabc\r\n", 5, NETIO_EPROTO},
        {"3;a=b c\r\nabc\r\n", 7, NETIO_EPROTO},
        {"3;a b\r\n", 5, NETIO_EPROTO},
        {"3;a \r\n", 5, NETIO_EPROTO},
        {"3;a=b \r\n", 7, NETIO_EPROTO},
        {"3;a=\"b\r\n", 7, NETIO_EPROTO},
        {"3;a=\"b\nc\"\r\n", 7, NETIO_EPROTO},
        {"3;a=\"\\\r\n", 7, NETIO_EPROTO},
        {"3;a=\"b\"c\r\n", 8, NETIO_EPROTO},
        {"3;a=\"\x7f\"\r\n", 6, NETIO_EPROTO},
        {"3;a=\"b\"\n", 8, NETIO_EPROTO},
        {"3;a=@\r\n", 5, NETIO_EPROTO},
        {"3;=b\r\n", 3, NETIO_EPROTO},
        {"3\r\nabcd\r\n", 7, NETIO_EPROTO},
        {"3\r\nabc\n", 7, NETIO_EPROTO},
        {"3\r\nabc\rX", 8, NETIO_EPROTO},
        {"3\r\nabc3\r\nabc\r\n", 7, NETIO_EPROTO},
        {"10000000000000000\r\n", 17, NETIO_EPROTO},
        {"ffffffffffffffff\r\n", 18, NETIO_EMSGSIZE},
        {"7fffffffffffffff\r\n", 18, NETIO_EMSGSIZE},
        {"11\r\n", 4, NETIO_EMSGSIZE},
        {"0\r\nX\r\n\r\n", 8, NETIO_EPROTO},
        {"0\r\n\n", 4, NETIO_EPROTO},
        {"0\r\nA: b\n\r\n", 8, NETIO_EPROTO},
        {"0\r\nA: b\rC: d\r\n\r\n", 9, NETIO_EPROTO},
        {"0\r\nA: \1\r\n\r\n", 7, NETIO_EPROTO},
        {"0\r\nA : b\r\n\r\n", 12, NETIO_EPROTO},
        {"0\r\n A: b\r\n\r\n", 12, NETIO_EPROTO},
        {"0\r\nA: b\r\n c\r\n\r\n", 15, NETIO_EPROTO},
        {"0\r\n: b\r\n\r\n", 10, NETIO_EPROTO},
        {"0\r\n\rX", 5, NETIO_EPROTO},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[128];
        // A good chunk first: it must be handed out whatever follows.
        int n = snprintf(text, sizeof text, "1\r\nx\r\n%sGET", rows[i].text);
        start(netio_framing_chunked(16), true);
        cuts_all(&run, text, (size_t)n);
        if (run.err != rows[i].err || run.frames != 1)
            test_fail(__FILE__, __LINE__, "%s, %d frames: %s", netio_errname(run.err), run.frames,
                      rows[i].text);
        if (cuts_error_at(&run, text, (size_t)n) != 6 + rows[i].at)
            test_fail(__FILE__, __LINE__, "not at %d: %s", (int)rows[i].at, rows[i].text);
        CHECK(strstr(run.log, " at 6 ") != NULL);
    }
}

TEST(http, chunk_of_max_bytes_passes_and_of_one_more_not)
{
    char text[64];
    int n = snprintf(text, sizeof text, "A\r\n0123456789\r\n0\r\n\r\n");
    start(netio_framing_chunked(10), true);
    cuts_all(&run, text, (size_t)n);
    CHECK_ERR(NETIO_EOF, run.err);
    start(netio_framing_chunked(9), true);
    cuts_all(&run, text, (size_t)n);
    CHECK_ERR(NETIO_EMSGSIZE, run.err);
    CHECK_STR("error 33 at 0 size 10\n", run.log);
}

TEST(http, chunk_line_and_trailers_have_a_limit)
{
    static char text[20000];
    for (size_t line = 1023; line <= 1026; line++) { // of 1,024 with its CRLF
        memset(text, 'a', line);
        memcpy(text, "1;", 2);
        memcpy(text + line - 2, "\r\nx\r\n0\r\n\r\n", 10);
        start(netio_framing_chunked(0), true);
        cuts_run(&run, text, line + 8, 0, 0);
        CHECK_ERR(line <= 1024 ? NETIO_EOF : NETIO_EMSGSIZE, run.err);
        cuts_run(&run, text, line + 8, 0, 1);
        CHECK_ERR(line <= 1024 ? NETIO_EOF : NETIO_EMSGSIZE, run.err);
    }
    for (size_t len = 8191; len <= 8193; len++) { // of 8,192 with the empty line
        memset(text, 'a', 3 + len);
        memcpy(text, "0\r\nA:", 5);
        memcpy(text + 3 + len - 4, "\r\n\r\n", 4);
        start(netio_framing_chunked(0), true);
        cuts_run(&run, text, 3 + len, 0, 0);
        CHECK_ERR(len <= 8192 ? NETIO_EOF : NETIO_EMSGSIZE, run.err);
        cuts_run(&run, text, 3 + len, 0, 1);
        CHECK_ERR(len <= 8192 ? NETIO_EOF : NETIO_EMSGSIZE, run.err);
    }
}

TEST(http, chunked_body_that_ends_early_is_truncated)
{
    static const char text[] = "4;a=\"b\"\r\nWiki\r\n6\r\npedia \r\n0\r\nA: b\r\n\r\n";
    for (size_t len = 0; len < sizeof text - 1; len++) {
        start(netio_framing_chunked(0), true);
        cuts_all(&run, text, len);
        CHECK_ERR(NETIO_ETRUNCATED, run.err);
    }
    cuts_all(&run, text, sizeof text - 1);
    CHECK_ERR(NETIO_EOF, run.err);
}

TEST(http, chunk_is_handed_out_where_it_lies_and_huge_claims_take_no_memory)
{
    static const char text[] = "4\r\nWiki\r\n0\r\n\r\n", huge[] = "7ffffffffffffff0\r\nabc";
    netio_decoder d;
    netio_frame f;
    long allocs = test_allocs();
    CHECK_OK(netio_decoder_init(&d, netio_framing_chunked(0), NULL, 0));
    CHECK_OK(netio_decoder_feed(&d, text, sizeof text - 1));
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK(f.data == (const uint8_t *)text + 3 && f.len == 4);
    CHECK_ERR(1, netio_decoder_next(&d, &f));
    CHECK(f.len == 0 && f.header == (const uint8_t *)text + 12 && f.header_len == 0);
    CHECK_ERR(0, netio_decoder_next(&d, &f));
    CHECK_OK(netio_decoder_feed(&d, huge, sizeof huge - 1));
    CHECK_ERR(NETIO_EMSGSIZE, netio_decoder_next(&d, &f));
    CHECK_EQ(allocs, test_allocs());
    netio_decoder_free(&d);
}

static size_t put(char *out, size_t cap, const netio_frame *f)
{
    netio_framing framing = netio_framing_chunked(0);
    ptrdiff_t n = netio_encode_into(out, cap, &framing, f);
    if (n < 0) test_fail(__FILE__, __LINE__, "encode: %s", netio_errname(n));
    return (size_t)n;
}

TEST(http, chunked_encodes_pieces_and_an_empty_one_ends_nothing)
{
    char out[64];
    netio_frame f = {0};
    size_t n;
    f.data = (const uint8_t *)"0123456789abcdef!";
    f.len = 17;
    n = put(out, sizeof out, &f);
    CHECK_EQ(23, n);
    CHECK_MEM("11\r\n0123456789abcdef!\r\n", out, 23);
    f.len = 0;
    CHECK_EQ(0, put(out, sizeof out, &f));
    f.data = NULL;
    n = put(out, sizeof out, &f);
    CHECK_EQ(5, n);
    CHECK_MEM("0\r\n\r\n", out, 5);
    f.header = (const uint8_t *)"A: b\r\nC: d\r\n";
    f.header_len = 12;
    n = put(out, sizeof out, &f);
    CHECK_EQ(17, n);
    CHECK_MEM("0\r\nA: b\r\nC: d\r\n\r\n", out, 17);
}

TEST(http, chunked_encode_refuses_broken_trailers)
{
    static const char *const bad[] = {"A: b", "A: b\n",    "A b\r\n",        "A: b\r\n\r\n",
                                      "\r\n", " A: b\r\n", "A: b\r\n c\r\n", "A: b\rC: d\r\n"};
    netio_framing framing = netio_framing_chunked(0);
    netio_envelope e;
    netio_frame f = {0};
    char big[300];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        f.header = (const uint8_t *)bad[i];
        f.header_len = strlen(bad[i]);
        CHECK_ERR(NETIO_EINVAL, netio_encode(&e, &framing, &f));
    }
    memset(big, 'a', sizeof big);
    for (size_t len = 257; len <= 259; len++) {
        memcpy(big + 1, ":", 1);
        memset(big + 2, 'a', sizeof big - 2);
        memcpy(big + len - 2, "\r\n", 2);
        f.header = (const uint8_t *)big;
        f.header_len = len;
        CHECK_ERR(len <= 258 ? 0 : NETIO_EMSGSIZE, netio_encode(&e, &framing, &f));
    }
    f.data = (const uint8_t *)"x"; // trailers stand behind the last chunk only
    f.len = 1;
    f.header = (const uint8_t *)"A: b\r\n";
    f.header_len = 6;
    CHECK_ERR(NETIO_EINVAL, netio_encode(&e, &framing, &f));
}

TEST(http, chunked_decodes_what_it_encoded)
{
    static unsigned char body[70000], wire[80000], got[70000];
    static const size_t sizes[] = {1, 9, 10, 15, 16, 17, 255, 256, 257, 4095, 4096, 65535};
    netio_frame f = {0};
    netio_decoder d;
    size_t at = 0, len = 0, total = 0;
    int ends = 0;
    test_fill(body, sizeof body, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && at + sizes[i] <= sizeof body; i++) {
        f.data = body + at;
        f.len = sizes[i];
        len += put((char *)wire + len, sizeof wire - len, &f);
        at += sizes[i];
    }
    f.data = NULL;
    f.len = 0;
    len += put((char *)wire + len, sizeof wire - len, &f);
    CHECK_OK(netio_decoder_init(&d, netio_framing_chunked(0), NULL, 0));
    for (size_t off = 0, n; off < len; off += n) {
        n = len - off < 777 ? len - off : 777;
        CHECK_OK(netio_decoder_feed(&d, wire + off, n));
        while (netio_decoder_next(&d, &f) > 0) {
            memcpy(got + total, f.data, f.len);
            total += f.len;
            if (f.len == 0) ends++;
        }
    }
    CHECK_EQ(at, total);
    CHECK_EQ(1, ends);
    CHECK_MEM(body, got, at);
    netio_decoder_free(&d);
}

// A head, its body, the next head: each framing is set when the frame before it came.
TEST(http, head_and_body_share_a_stream)
{
    static const char text[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"
                               "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    for (size_t step = 1; step < sizeof text; step++) {
        netio_decoder d;
        netio_frame f;
        char body[16] = "", target[16] = "";
        CHECK_OK(netio_decoder_init(&d, netio_framing_http_head(0), NULL, 0));
        for (size_t off = 0, n; off < sizeof text - 1; off += n) {
            n = sizeof text - 1 - off < step ? sizeof text - 1 - off : step;
            CHECK_OK(netio_decoder_feed(&d, text + off, n));
            while (netio_decoder_next(&d, &f) > 0) {
                if (d.framing.format == NETIO_FORMAT_HTTP_HEAD) {
                    CHECK_OK(netio_http_parse(&head, f.data, f.len));
                    memcpy(target, head.target.data, head.target.len);
                    if (head.chunked)
                        CHECK_OK(netio_decoder_set_framing(&d, netio_framing_chunked(0)));
                } else if (f.len) {
                    strncat(body, (const char *)f.data, f.len);
                } else {
                    CHECK_MEM("X: y\r\n", f.header, 6);
                    CHECK_OK(netio_decoder_set_framing(&d, netio_framing_http_head(0)));
                }
            }
        }
        CHECK_STR("abcde", body);
        CHECK_STR("/next", target);
        netio_decoder_free(&d);
    }
}

//================================================================================================
// SHA-1, base64
//================================================================================================

static void check_sha1(const char *want, const void *data, size_t len)
{
    uint8_t sum[20];
    char hex[41];
    netio_sha1(sum, data, len);
    for (int i = 0; i < 20; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    CHECK_STR(want, hex);
}

TEST(http, sha1_gives_the_published_sums)
{
    static char million[1000000];
    static const char many[] = "0123456701234567012345670123456701234567012345670123456701234567";
    check_sha1("a9993e364706816aba3e25717850c26c9cd0d89d", "abc", 3);
    check_sha1("84983e441c3bd26ebaae4aa1f95129e5e54670f1",
               "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
    check_sha1("da39a3ee5e6b4b0d3255bfef95601890afd80709", NULL, 0);
    memset(million, 'a', sizeof million);
    check_sha1("34aa973cd4c4daa4f61eeb2bdbad27316534016f", million, sizeof million);
    for (int i = 0; i < 10; i++) memcpy(million + 64 * i, many, 64);
    check_sha1("dea356a2cddd90c7a7ecedc5ebb563934f460452", million, 640);
}

// The sum over the sums of the first 0 to 200 of a row of bytes: every way of padding.
TEST(http, sha1_pads_every_length)
{
    uint8_t data[200], sums[201 * 20];
    for (int i = 0; i < 200; i++) data[i] = (uint8_t)(i * 7 + 3);
    for (size_t len = 0; len <= 200; len++) netio_sha1(sums + 20 * len, data, len);
    check_sha1("02d79069dc73ad0af03448abfaffbb710334f1e9", sums, sizeof sums);
}

TEST(http, base64_gives_the_published_texts)
{
    static const struct {
        const char *plain, *text;
    } rows[] = {{"", ""},
                {"f", "Zg=="},
                {"fo", "Zm8="},
                {"foo", "Zm9v"},
                {"foob", "Zm9vYg=="},
                {"fooba", "Zm9vYmE="},
                {"foobar", "Zm9vYmFy"},
                {"\xfb\xff\xfe", "+//+"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[16], plain[16];
        size_t n = strlen(rows[i].plain);
        CHECK_EQ(strlen(rows[i].text), netio_base64_encode(text, sizeof text, rows[i].plain, n));
        CHECK_STR(rows[i].text, text);
        CHECK_EQ(n, netio_base64_decode(plain, sizeof plain, text, strlen(text)));
        CHECK_MEM(rows[i].plain, plain, n);
        // Exactly enough room, and one byte less.
        CHECK_EQ(strlen(text),
                 netio_base64_encode(text, strlen(rows[i].text) + 1, rows[i].plain, n));
        CHECK_ERR(NETIO_ENOSPC, netio_base64_encode(text, strlen(rows[i].text), rows[i].plain, n));
        CHECK_EQ(n, netio_base64_decode(plain, n, rows[i].text, strlen(rows[i].text)));
        if (n)
            CHECK_ERR(NETIO_ENOSPC,
                      netio_base64_decode(plain, n - 1, rows[i].text, strlen(rows[i].text)));
    }
}

TEST(http, base64_round_trips_every_length)
{
    uint8_t data[100], back[100];
    char text[140];
    test_fill(data, sizeof data, 5);
    for (size_t len = 0; len <= sizeof data; len++) {
        ptrdiff_t n = netio_base64_encode(text, sizeof text, data, len);
        CHECK_EQ((len + 2) / 3 * 4, n);
        CHECK_EQ(len, netio_base64_decode(back, sizeof back, text, (size_t)n));
        CHECK_MEM(data, back, len);
    }
}

TEST(http, base64_decode_refuses_all_but_one_form)
{
    static const char *const bad[] = {"Z",        "Zg",       "Zg=",      "Zg===",   "Z===",
                                      "====",     "Zh==",     "Zm9=",     "Zm9v=",   "Zm 9",
                                      "Zm9\n",    "Zm9v\r\n", "Zm9-",     "Zm9_",    "=m9v",
                                      "Zg==Zg==", "Zm=v",     "Zm9v====", "Zm\xc3v", "Zm9*"};
    uint8_t out[16];
    memset(out, 0xC7, sizeof out);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_ERR(NETIO_EPROTO, netio_base64_decode(out, sizeof out, bad[i], strlen(bad[i])));
    CHECK_ERR(NETIO_EPROTO, netio_base64_decode(out, sizeof out, "Zm\0v", 4));
    for (size_t i = 0; i < sizeof out; i++) CHECK_EQ(0xC7, out[i]); // nothing was written
}

// clang-format off
TEST_MAIN("http",
    T(http, parse_reads_a_request),
    T(http, parse_reads_a_response),
    T(http, parse_takes_a_head_without_its_empty_line),
    T(http, parse_takes_what_the_grammar_allows),
    T(http, parse_refuses_what_smugglers_use),
    T(http, parse_refuses_a_nul_anywhere),
    T(http, parse_refuses_every_cut_head),
    T(http, parse_keeps_64_fields_and_not_65),
    T(http, parse_reads_lengths_up_to_63_bits),
    T(http, parse_tells_whether_the_connection_stays),
    T(http, field_is_found_in_any_case_and_the_first_counts),
    T(http, field_has_looks_into_all_lists),
    T(http, buf_equal_is_exact),
    T(http, add_puts_a_field_before_the_empty_line),
    T(http, add_lets_nothing_in_that_breaks_a_head),
    T(http, head_is_the_same_for_every_cut),
    T(http, head_of_max_bytes_passes_and_of_one_more_not),
    T(http, head_without_an_end_never_needs_more_than_max),
    T(http, head_fails_at_its_first_bad_byte),
    T(http, head_cut_off_by_the_end_is_truncated),
    T(http, head_is_sent_as_it_is),
    T(http, chunked_body_is_the_same_for_every_cut),
    T(http, chunked_takes_every_extension_of_the_grammar),
    T(http, chunked_fails_at_its_first_bad_byte),
    T(http, chunk_of_max_bytes_passes_and_of_one_more_not),
    T(http, chunk_line_and_trailers_have_a_limit),
    T(http, chunked_body_that_ends_early_is_truncated),
    T(http, chunk_is_handed_out_where_it_lies_and_huge_claims_take_no_memory),
    T(http, chunked_encodes_pieces_and_an_empty_one_ends_nothing),
    T(http, chunked_encode_refuses_broken_trailers),
    T(http, chunked_decodes_what_it_encoded),
    T(http, head_and_body_share_a_stream),
    T(http, sha1_gives_the_published_sums),
    T(http, sha1_pads_every_length),
    T(http, base64_gives_the_published_texts),
    T(http, base64_round_trips_every_length),
    T(http, base64_decode_refuses_all_but_one_form))
// clang-format on
