// examples/common/http_client.h: URLs, requests, and responses cut in every way.
#include "cuts.h"

#include "../examples/common/http_client.h"

//================================================================================================
// Tools
//================================================================================================

// A client that is fed one input, and a transcript of what it said: the events, with the pieces of
// a body as one, since only their sum must not depend on the cut.
typedef struct talk {
    http_client_opts opts;
    const char *method; // NULL: GET
    bool open;          // the end does not come
    char log[8192];
    size_t len;
    uint64_t body;
    uint32_t crc;
    size_t fed; // bytes given when it was over
    int result; // the error, or HTTP_EVENT_END, or 0: it waits
    bool reusable;
} talk;

static void say(talk *t, const char *text, size_t len)
{
    if (len > sizeof t->log - 1 - t->len) len = sizeof t->log - 1 - t->len;
    if (len) memcpy(t->log + t->len, text, len);
    t->len += len;
    t->log[t->len] = 0;
}

static void say_head(talk *t, const netio_http_head *h)
{
    char line[64];
    say(t, line, (size_t)snprintf(line, sizeof line, "%d/%d ", h->status, h->minor));
    say(t, (const char *)h->reason.data, h->reason.len);
    for (size_t i = 0; i < h->field_count; i++) {
        say(t, "|", 1);
        say(t, (const char *)h->names[i].data, h->names[i].len);
        say(t, "=", 1);
        say(t, (const char *)h->values[i].data, h->values[i].len);
    }
    say(t, "\n", 1);
}

static void say_body(talk *t)
{
    char line[64];
    if (t->body)
        say(t, line,
            (size_t)snprintf(line, sizeof line, "body %u %08x\n", (unsigned)t->body,
                             (unsigned)t->crc));
}

static void drain(talk *t, http_client *c)
{
    http_event e;
    while (t->result == 0) {
        int r = http_client_next(c, &e);
        if (r == 0) return;
        if (r < 0) t->result = r;
        if (r == 1 && e.type == HTTP_EVENT_HEAD) say_head(t, e.head);
        if (r == 1 && e.type == HTTP_EVENT_BODY) {
            CHECK(e.len > 0);
            t->body += e.len;
            t->crc = netio_crc32(t->crc, e.data, e.len);
        }
        if (r == 1 && e.type == HTTP_EVENT_END) t->result = HTTP_EVENT_END;
        if (t->result == 0) continue;
        say_body(t);
        if (r == 1) say(t, (const char *)e.data, e.len);
        if (r == 1) say(t, "end\n", 4);
    }
}

static void expect_response(http_client *c, const char *method)
{
    char buf[256];
    http_url url;
    CHECK_OK(http_url_parse(&url, "http://a/", 9));
    CHECK(http_client_request(c, buf, sizeof buf, method ? method : "GET", &url, HTTP_BODY_NONE) >
          0);
}

// `first` bytes, then pieces of `step` bytes; 0: all the rest. See cuts_run.
static void run(talk *t, const void *data, size_t len, size_t first, size_t step)
{
    http_client c;
    t->len = t->fed = 0;
    t->log[0] = 0;
    t->body = t->crc = 0;
    t->result = 0;
    CHECK_OK(http_client_init(&c, &t->opts));
    expect_response(&c, t->method);
    while (t->fed < len && t->result == 0) {
        size_t n = t->fed == 0 && first ? first : step ? step : len;
        if (n > len - t->fed) n = len - t->fed;
        unsigned char *end = n == len && n <= CUTS_GUARDED ? cuts_guard() : NULL;
        unsigned char *piece = end ? end - n : (unsigned char *)malloc(n);
        if (!piece) abort();
        memcpy(piece, (const char *)data + t->fed, n);
        t->fed += n;
        CHECK_OK(http_client_feed(&c, piece, n));
        drain(t, &c);
        t->reusable = http_client_reusable(&c);
        memset(piece, 0x5A, n);
        if (!end) free(piece);
    }
    if (!t->open && t->result == 0) {
        http_client_end(&c);
        drain(t, &c);
        t->reusable = http_client_reusable(&c);
    }
    if (t->result < 0) {
        http_event e;
        CHECK_ERR(t->result, http_client_next(&c, &e)); // it stays
        CHECK_ERR(t->result, http_client_feed(&c, "", 0));
        say(t, netio_errname(t->result), strlen(netio_errname(t->result)));
        say(t, ": ", 2);
        say(t, http_client_why(&c), strlen(http_client_why(&c)));
        say(t, "\n", 1);
    } else {
        CHECK_STR("", http_client_why(&c));
    }
    http_client_free(&c);
}

// All two-way cuts, and one, two and three bytes at a time, say the same as the whole.
static void run_cuts(talk *t, const void *data, size_t len)
{
    static talk other;
    run(t, data, len, 0, 0);
    for (size_t first = 1; first <= len; first++) {
        other = *t;
        run(&other, data, len, first, 0);
        CHECK_STR(t->log, other.log);
    }
    for (size_t step = 1; step <= 3; step++) {
        other = *t;
        run(&other, data, len, 0, step);
        CHECK_STR(t->log, other.log);
    }
}

static void answers(const char *file, int line, talk *t, const char *input, size_t len,
                    const char *want)
{
    run_cuts(t, input, len);
    if (strcmp(want, t->log) != 0) fprintf(stderr, "input: %s\n", input);
    test_check_str(file, line, "transcript", want, t->log);
}
#define ANSWERS(t, input, want) answers(__FILE__, __LINE__, t, input, strlen(input), want)

static talk talk_for(const char *method)
{
    talk t;
    memset(&t, 0, sizeof t);
    t.method = method;
    return t;
}

// A transcript: what was said of the head, this body, and the end.
static const char *with_body(const char *head, const char *body, const char *end)
{
    static char text[1024];
    size_t len = strlen(body);
    size_t n = (size_t)snprintf(text, sizeof text, "%s", head);
    if (len)
        n += (size_t)snprintf(text + n, sizeof text - n, "body %u %08x\n", (unsigned)len,
                              (unsigned)netio_crc32(0, body, len));
    snprintf(text + n, sizeof text - n, "%s", end);
    return text;
}

//================================================================================================
// URLs
//================================================================================================

static http_url url;

// Without a NUL behind it, and with nothing readable there.
static int parse(const char *text)
{
    size_t len = strlen(text);
    unsigned char *end = len <= CUTS_GUARDED ? cuts_guard() : NULL;
    unsigned char *copy = end ? end - len : (unsigned char *)malloc(len);
    if (len) memcpy(copy, text, len);
    int err = http_url_parse(&url, (const char *)copy, len);
    if (!end) free(copy);
    return err;
}

TEST(http_client, url_gives_what_dialing_and_asking_need)
{
    static const struct {
        const char *text;
        bool tls;
        int port;
        const char *host, *address, *authority, *target;
    } good[] = {
        {"http://a.example/b?c=d", false, 80, "a.example", "a.example:80", "a.example", "/b?c=d"},
        {"https://a.example", true, 443, "a.example", "a.example:443", "a.example", "/"},
        {"HTTPS://A.Example:8443/B", true, 8443, "a.example", "a.example:8443", "a.example:8443",
         "/B"},
        {"http://a:443/", false, 443, "a", "a:443", "a:443", "/"},
        {"https://a:80/", true, 80, "a", "a:80", "a:80", "/"},
        {"https://a:443/", true, 443, "a", "a:443", "a", "/"},
        {"http://a:0080/", false, 80, "a", "a:80", "a", "/"},
        {"http://a:/x", false, 80, "a", "a:80", "a", "/x"},
        {"http://a?b", false, 80, "a", "a:80", "a", "/?b"},
        {"http://a#b", false, 80, "a", "a:80", "a", "/"},
        {"http://a/b#c?d/e", false, 80, "a", "a:80", "a", "/b"},
        {"http://a/b?c#d", false, 80, "a", "a:80", "a", "/b?c"},
        {"http://a//b/../c/./d", false, 80, "a", "a:80", "a", "//b/../c/./d"},
        {"http://a/x?y=[1]&z=a@b:c/;=!$'()*+,~", false, 80, "a", "a:80", "a",
         "/x?y=[1]&z=a@b:c/;=!$'()*+,~"},
        {"http://a/%E2%82%ac%20", false, 80, "a", "a:80", "a", "/%E2%82%ac%20"},
        {"http://127.0.0.1:8080/", false, 8080, "127.0.0.1", "127.0.0.1:8080", "127.0.0.1:8080",
         "/"},
        {"http://[::1]/", false, 80, "::1", "[::1]:80", "[::1]", "/"},
        {"https://[2001:DB8::a]:8/x", true, 8, "2001:db8::a", "[2001:db8::a]:8", "[2001:db8::a]:8",
         "/x"},
        {"http://[::ffff:192.0.2.1]", false, 80, "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80",
         "[::ffff:192.0.2.1]", "/"},
        {"http://xn--bcher-kva.example/", false, 80, "xn--bcher-kva.example",
         "xn--bcher-kva.example:80", "xn--bcher-kva.example", "/"},
        {"http://_a-b.3com.4x:65535/", false, 65535, "_a-b.3com.4x", "_a-b.3com.4x:65535",
         "_a-b.3com.4x:65535", "/"},
        {"http://1.2.3.4.example/", false, 80, "1.2.3.4.example", "1.2.3.4.example:80",
         "1.2.3.4.example", "/"},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK_OK(parse(good[i].text));
        CHECK_EQ(good[i].tls, url.tls);
        CHECK_EQ(good[i].port, url.port);
        CHECK_STR(good[i].host, url.host);
        CHECK_STR(good[i].address, url.address);
        CHECK_STR(good[i].authority, url.authority);
        CHECK_STR(good[i].target, url.target);
    }
}

TEST(http_client, url_refuses_all_else)
{
    static const char *const bad[] = {
        "",
        "a",
        "/",
        "//a/",
        "a.example/b",
        "http",
        "http:",
        "http:/",
        "http:/a",
        "http:a",
        "http://",
        "http:///",
        "http:///a",
        "http://?",
        "http://#",
        "http://:80/",
        "http//a",
        " http://a/",
        "http://a/ ",
        "http://a b/",
        "http://a/\tb",
        "http://a/\r\nX: y",
        "http://a/\n",
        "http://a/\x7f",
        "http://a/\xc3\xa9",
        "http://\xc3\xa9/",
        "http://a/\"",
        "http://a/<b>",
        "http://a\\b/",
        "http://a/\\b",
        "http://a/^",
        "http://a/`",
        "http://a/{b}",
        "http://a/|",
        "http://a/%",
        "http://a/%4",
        "http://a/%4g",
        "http://a/b#%",
        "http://%61/",
        "http://a%00b/",
        // A user, so that nobody takes "good.example@evil.example" for good.example.
        "http://user@a/",
        "http://user:pass@a/",
        "http://@a/",
        "http://a:80@b/",
        // Ports.
        "http://a:0/",
        "http://a:65536/",
        "http://a:99999999999999999999/",
        "http://a:-1/",
        "http://a:+1/",
        "http://a:1x/",
        "http://a:x/",
        "http://a:80:80/",
        "http://a: 80/",
        // Hosts.
        "http://a..b/",
        "http://.a/",
        "http://a./",
        "http://./",
        "http://a,b/",
        "http://a;b/",
        "http://a=b/",
        "http://a+b/",
        "http://a*/",
        "http://a!/",
        "http://(a)/",
        "http://a~b/",
        // What others read as an IPv4 address.
        "http://1/",
        "http://127.1/",
        "http://1.2.3/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://01.2.3.4/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://a.1/",
        "http://a.0x1/",
        "http://2130706433/",
        // IPv6.
        "http://::1/",
        "http://[::1/",
        "http://::1]/",
        "http://[]/",
        "http://[:]/",
        "http://[1.2.3.4]/",
        "http://[a]/",
        "http://[::1]a/",
        "http://[::1]:x/",
        "http://[::1]]/",
        "http://[[::1]]/",
        "http://[::1%25lo]/",
        "http://[fe80::1%lo]/",
        "http://[fe80::1%25lo]/",
        "http://[1:2:3:4:5:6:7:8:9]/",
        "http://[::1:80/",
        "http://[v1.a]/",
    };
    memset(&url, 0x5A, sizeof url);
    http_url before = url;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int err = parse(bad[i]);
        if (err != NETIO_EINVAL) test_fail(__FILE__, __LINE__, "%s: %d", bad[i], err);
        CHECK_MEM(&before, &url, sizeof url);
    }
    CHECK_ERR(NETIO_EINVAL, http_url_parse(&url, "http://a/\0b", 11));
    CHECK_ERR(NETIO_EINVAL, http_url_parse(&url, "http://a\0/b", 11));
    CHECK_ERR(NETIO_EINVAL, http_url_parse(&url, "http:\0//a/", 10));
    CHECK_ERR(NETIO_ENOTSUP, parse("ftp://a/"));
    CHECK_ERR(NETIO_ENOTSUP, parse("file:///etc/passwd"));
    CHECK_ERR(NETIO_ENOTSUP, parse("httpx://a/"));
    CHECK_ERR(NETIO_ENOTSUP, parse("httpsx://a/"));
    CHECK_MEM(&before, &url, sizeof url);
}

// "http://" + labels + "/" + letters.
static const char *long_url(size_t host, size_t target)
{
    static char text[8192];
    size_t n = (size_t)snprintf(text, sizeof text, "http://");
    for (size_t i = 0; i < host; i++) text[n++] = i % 50 == 49 && i + 1 < host ? '.' : 'h';
    if (target) text[n++] = '/';
    for (size_t i = 1; i < target; i++) text[n++] = 't';
    text[n] = 0;
    return text;
}

TEST(http_client, url_lengths_have_limits)
{
    char text[100];
    CHECK_OK(parse(long_url(253, 1)));
    CHECK_EQ(253, strlen(url.host));
    CHECK_EQ(253 + 3, strlen(url.address));
    CHECK_ERR(NETIO_ENAMETOOLONG, parse(long_url(254, 1)));
    CHECK_ERR(NETIO_ENAMETOOLONG, parse(long_url(5000, 1)));
    CHECK_OK(parse(long_url(1, HTTP_TARGET_MAX)));
    CHECK_EQ(HTTP_TARGET_MAX, strlen(url.target));
    CHECK_ERR(NETIO_ENAMETOOLONG, parse(long_url(1, HTTP_TARGET_MAX + 1)));
    for (int n = 63; n <= 64; n++) { // RFC 1035 section 2.3.4
        memset(text, 'a', sizeof text);
        memcpy(text, "http://", 7);
        memcpy(text + 7 + n, ".b/", 4);
        CHECK_ERR(n == 63 ? 0 : NETIO_EINVAL, parse(text));
    }
}

TEST(http_client, url_without_a_path_counts_its_slash)
{
    char text[HTTP_TARGET_MAX + 32];
    memset(text, 'q', sizeof text);
    memcpy(text, "http://a?", 9);
    CHECK_OK(http_url_parse(&url, text, 8 + HTTP_TARGET_MAX - 1));
    CHECK_EQ(HTTP_TARGET_MAX, strlen(url.target));
    CHECK_ERR(NETIO_ENAMETOOLONG, http_url_parse(&url, text, 8 + HTTP_TARGET_MAX));
}

static int resolve(const char *location)
{
    return http_url_resolve(&url, &url, location, strlen(location));
}

// The examples of RFC 3986 section 5.4, but for those of other schemes.
TEST(http_client, redirects_resolve_as_the_rfc_says)
{
    static const char *const examples[][2] = {
        {"g", "/b/c/g"},
        {"./g", "/b/c/g"},
        {"g/", "/b/c/g/"},
        {"/g", "/g"},
        {"?y", "/b/c/d;p?y"},
        {"g?y", "/b/c/g?y"},
        {"#s", "/b/c/d;p?q"},
        {"g#s", "/b/c/g"},
        {"g?y#s", "/b/c/g?y"},
        {";x", "/b/c/;x"},
        {"g;x", "/b/c/g;x"},
        {"g;x?y#s", "/b/c/g;x?y"},
        {"", "/b/c/d;p?q"},
        {".", "/b/c/"},
        {"./", "/b/c/"},
        {"..", "/b/"},
        {"../", "/b/"},
        {"../g", "/b/g"},
        {"../..", "/"},
        {"../../", "/"},
        {"../../g", "/g"},
        {"../../../g", "/g"},
        {"../../../../g", "/g"},
        {"/./g", "/g"},
        {"/../g", "/g"},
        {"g.", "/b/c/g."},
        {".g", "/b/c/.g"},
        {"g..", "/b/c/g.."},
        {"..g", "/b/c/..g"},
        {"./../g", "/b/g"},
        {"./g/.", "/b/c/g/"},
        {"g/./h", "/b/c/g/h"},
        {"g/../h", "/b/c/h"},
        {"g;x=1/./y", "/b/c/g;x=1/y"},
        {"g;x=1/../y", "/b/c/y"},
        {"g?y/./x", "/b/c/g?y/./x"},
        {"g?y/../x", "/b/c/g?y/../x"},
        {"g#s/./x", "/b/c/g"},
        {"/a//../b", "/a/b"},
        {"/..", "/"},
        {"/.", "/"},
        {"/a/b/..?c", "/a/?c"},
        {"http://a/x/../y", "/y"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        CHECK_OK(parse("http://a/b/c/d;p?q"));
        CHECK_OK(resolve(examples[i][0]));
        CHECK_STR(examples[i][1], url.target);
        CHECK_STR("a", url.authority);
    }
    CHECK_OK(parse("http://a/b/c/d;p?q"));
    CHECK_OK(resolve("//g"));
    CHECK_STR("g:80", url.address);
    CHECK_STR("/", url.target);
}

TEST(http_client, redirects_may_lead_elsewhere)
{
    CHECK_OK(parse("https://[::1]:8443/x"));
    CHECK_OK(resolve("y"));
    CHECK(url.tls);
    CHECK_STR("[::1]:8443", url.authority);
    CHECK_STR("/y", url.target);
    CHECK_OK(resolve("//b:1/z"));
    CHECK(url.tls);
    CHECK_STR("b:1", url.address);
    CHECK_OK(resolve("HTTP://c"));
    CHECK(!url.tls);
    CHECK_STR("c:80", url.address);
    CHECK_OK(parse("http://a"));
    CHECK_OK(resolve("x?y"));
    CHECK_STR("/x?y", url.target);
    CHECK_OK(parse("http://a?b/c"));
    CHECK_OK(resolve("x"));
    CHECK_STR("/x", url.target);
}

TEST(http_client, redirects_that_are_no_urls_are_refused)
{
    static const struct {
        const char *location;
        int want;
    } bad[] = {
        {"ftp://a/", NETIO_ENOTSUP},   {"file:///etc/passwd", NETIO_ENOTSUP},
        {"http:y", NETIO_EINVAL},      {"javascript:x", NETIO_EINVAL},
        {"http://", NETIO_EINVAL},     {"//", NETIO_EINVAL},
        {"//u@b/", NETIO_EINVAL},      {"///x", NETIO_EINVAL},
        {"/a b", NETIO_EINVAL},        {"/a\r\nX: y", NETIO_EINVAL},
        {"/\xc3\xa9", NETIO_EINVAL},   {"/%", NETIO_EINVAL},
        {"\\\\b", NETIO_EINVAL},       {"http://127.1/", NETIO_EINVAL},
        {"http://b:0/", NETIO_EINVAL},
    };
    CHECK_OK(parse("http://a/b"));
    http_url before = url;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_ERR(bad[i].want, resolve(bad[i].location));
        CHECK_MEM(&before, &url, sizeof url);
    }
    CHECK_ERR(NETIO_EINVAL, http_url_resolve(&url, &url, "/a\0b", 4));
    CHECK_OK(resolve(long_url(1, HTTP_TARGET_MAX) + 8)); // the path alone
    CHECK_ERR(NETIO_ENAMETOOLONG, resolve(long_url(1, HTTP_TARGET_MAX + 1) + 8));
    for (size_t target = HTTP_TARGET_MAX - 2; target <= HTTP_TARGET_MAX; target++) {
        CHECK_OK(parse(long_url(253, target)));
        CHECK_ERR(target == HTTP_TARGET_MAX - 2 ? 0 : NETIO_ENAMETOOLONG, resolve("?y"));
    }
}

//================================================================================================
// Requests
//================================================================================================

static http_client client;

static ptrdiff_t request(char *buf, size_t cap, const char *method, const char *text,
                         int64_t body_len)
{
    CHECK_OK(parse(text));
    CHECK_OK(http_client_init(&client, NULL));
    return http_client_request(&client, buf, cap, method, &url, body_len);
}

TEST(http_client, requests_are_written)
{
    static const struct {
        const char *method, *text;
        int64_t body_len;
        const char *want;
    } cases[] = {
        {"GET", "http://a.example/b?c", HTTP_BODY_NONE,
         "GET /b?c HTTP/1.1\r\nHost: a.example\r\n\r\n"},
        {"HEAD", "https://a:8443", HTTP_BODY_NONE, "HEAD / HTTP/1.1\r\nHost: a:8443\r\n\r\n"},
        {"DELETE", "http://[::1]:80/x#y", HTTP_BODY_NONE,
         "DELETE /x HTTP/1.1\r\nHost: [::1]\r\n\r\n"},
        {"POST", "http://a/", 0, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"},
        {"PUT", "http://a/", INT64_MAX,
         "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n"},
        {"POST", "http://a/", HTTP_BODY_CHUNKED,
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char buf[256];
        netio_http_head head;
        size_t want = strlen(cases[i].want);
        memset(buf, 0x5A, sizeof buf);
        CHECK_ERR(NETIO_ENOSPC,
                  request(buf, want, cases[i].method, cases[i].text, cases[i].body_len));
        CHECK_EQ(0x5A, buf[want]);
        http_client_free(&client);
        CHECK_EQ(want, request(buf, want + 1, cases[i].method, cases[i].text, cases[i].body_len));
        CHECK_STR(cases[i].want, buf);
        http_client_free(&client);
        CHECK_OK(netio_http_parse(&head, buf, want));
        CHECK(netio_buf_equal(head.method, cases[i].method));
        CHECK_EQ(cases[i].body_len == HTTP_BODY_CHUNKED, head.chunked);
        CHECK_EQ(cases[i].body_len < 0 ? -1 : cases[i].body_len, head.content_length);
        cuts c;
        memset(&c, 0, sizeof c);
        c.framing = netio_framing_http_head(0);
        c.end = true;
        cuts_all(&c, buf, want); // a server finds one head in it
        CHECK_EQ(1, c.frames);
        CHECK_ERR(NETIO_EOF, c.err);
    }
}

TEST(http_client, requests_take_more_fields)
{
    char buf[128];
    ptrdiff_t n = request(buf, sizeof buf, "GET", "http://a/", HTTP_BODY_NONE);
    CHECK(n > 0);
    n = netio_http_add(buf, sizeof buf, (size_t)n, "User-Agent", "x/1");
    n = netio_http_add(buf, sizeof buf, (size_t)n, "Connection", "close");
    CHECK_STR("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x/1\r\nConnection: close\r\n\r\n", buf);
    CHECK_ERR(NETIO_EINVAL, netio_http_add(buf, sizeof buf, (size_t)n, "X", "y\r\nZ: z"));
    http_client_free(&client);
}

TEST(http_client, requests_that_make_no_sense_are_refused)
{
    static const char *const bad[] = {"", "G T", "GET ", "GET\r\n", "G/T", "G\xc3\x89T", "CONNECT"};
    char buf[256];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_ERR(NETIO_EINVAL, request(buf, sizeof buf, bad[i], "http://a/", HTTP_BODY_NONE));
        http_client_free(&client);
    }
    CHECK_ERR(NETIO_EINVAL, request(buf, sizeof buf, "POST", "http://a/", -3));
    CHECK(http_client_reusable(&client)); // nothing was begun
    CHECK_EQ(27, http_client_request(&client, buf, sizeof buf, "GET", &url, HTTP_BODY_NONE));
    CHECK_ERR(NETIO_EBUSY,
              http_client_request(&client, buf, sizeof buf, "GET", &url, HTTP_BODY_NONE));
    CHECK(!http_client_reusable(&client));
    http_client_free(&client);
}

//================================================================================================
// Responses
//================================================================================================

TEST(http_client, bodies_end_by_length_by_chunk_and_by_the_end)
{
    talk t = talk_for(NULL);
    ANSWERS(&t, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            with_body("200/1 OK|Content-Length=5\n", "hello", "end\n"));
    CHECK(t.reusable);
    ANSWERS(&t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200/1 OK|Content-Length=0\nend\n");
    CHECK(t.reusable);
    ANSWERS(&t, "HTTP/1.1 200\r\n\r\nhello", with_body("200/1 \n", "hello", "end\n"));
    CHECK(!t.reusable);
    ANSWERS(&t, "HTTP/1.0 200 OK\r\n\r\n", "200/0 OK\nend\n");
    ANSWERS(&t,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            "4\r\nWiki\r\n6;a=b;c=\"d;\\\"\"\r\npedia \r\n00A\r\nin chunks.\r\n0\r\n\r\n",
            with_body("200/1 OK|Transfer-Encoding=chunked\n", "Wikipedia in chunks.", "end\n"));
    CHECK(t.reusable);
    ANSWERS(&t,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\na\r\n0123456789\r\n000\r\n\r\n",
            with_body("200/1 OK|Transfer-Encoding=CHUNKED\n", "0123456789", "end\n"));
    ANSWERS(&t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "200/1 OK|Transfer-Encoding=chunked\nend\n");
}

TEST(http_client, trailers_come_with_the_end)
{
    talk t = talk_for(NULL);
    ANSWERS(&t,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\nC: "
            "d\r\n\r\n",
            with_body("200/1 OK|Transfer-Encoding=chunked\n", "abc", "A: b\r\nC: d\r\nend\n"));
}

TEST(http_client, some_answers_have_no_body_whatever_they_say)
{
    talk head = talk_for("HEAD"), get = talk_for("GET");
    static const char *const said[] = {"Content-Length: 12", "Transfer-Encoding: chunked", "X: y"};
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        char input[128], want[128];
        const char *colon = strchr(said[i], ':');
        int n = (int)(colon - said[i]);
        snprintf(input, sizeof input, "HTTP/1.1 200 OK\r\n%s\r\n\r\n", said[i]);
        snprintf(want, sizeof want, "200/1 OK|%.*s=%s\nend\n", n, said[i], colon + 2);
        ANSWERS(&head, input, want);
        CHECK(head.reusable);
        memcpy(input + 9, "304", 3);
        memcpy(want, "304", 3);
        ANSWERS(&get, input, want);
        CHECK(get.reusable);
        if (i == 1) continue; // forbidden there, see netio_http_parse
        memcpy(input + 9, "204", 3);
        memcpy(want, "204", 3);
        ANSWERS(&get, input, want);
        CHECK(get.reusable);
    }
    // A limit is for what comes, not for what is only spoken of.
    head.opts.body_max = 5;
    ANSWERS(&head, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
            "200/1 OK|Content-Length=6\nend\n");
}

TEST(http_client, interim_responses_are_skipped)
{
    talk t = talk_for(NULL);
    ANSWERS(&t,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            with_body("200/1 OK|Content-Length=2\n", "hi", "end\n"));
    CHECK(t.reusable);
    char input[64 * (HTTP_INTERIM_MAX + 2)];
    size_t n = 0;
    for (int i = 0; i < HTTP_INTERIM_MAX; i++)
        n += (size_t)snprintf(input + n, sizeof input - n, "HTTP/1.1 102 x\r\n\r\n");
    snprintf(input + n, sizeof input - n, "HTTP/1.1 204 x\r\n\r\n");
    ANSWERS(&t, input, "204/1 x\nend\n");
    snprintf(input + n, sizeof input - n, "HTTP/1.1 102 x\r\n\r\nHTTP/1.1 204 x\r\n\r\n");
    ANSWERS(&t, input, "EPROTO: too many 1xx responses\n");
}

TEST(http_client, empty_lines_before_a_head_are_skipped)
{
    talk t = talk_for(NULL);
    ANSWERS(&t, "\r\n\r\nHTTP/1.1 204 x\r\n\r\n", "204/1 x\nend\n");
}

TEST(http_client, whether_a_connection_goes_on)
{
    static const struct {
        const char *input;
        bool want;
    } cases[] = {
        {"HTTP/1.1 204 x\r\n\r\n", true},
        {"HTTP/1.1 204 x\r\nConnection: close\r\n\r\n", false},
        {"HTTP/1.1 204 x\r\nConnection: x, Close\r\n\r\n", false},
        {"HTTP/1.0 204 x\r\n\r\n", false},
        {"HTTP/1.0 204 x\r\nConnection: keep-alive\r\n\r\n", true},
        {"HTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\nx", true},
        {"HTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\nxy", false}, // more than was asked for
        {"HTTP/1.1 204 x\r\n\r\nHTTP/1.1 200 x\r\n\r\n", false},
        {"HTTP/1.1 200 x\r\n\r\n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        talk t = talk_for(NULL);
        run(&t, cases[i].input, strlen(cases[i].input), 0, 0);
        CHECK_EQ(HTTP_EVENT_END, t.result);
        CHECK_EQ(cases[i].want, t.reusable);
    }
}

static int next_type(http_client *c)
{
    http_event e;
    int r = http_client_next(c, &e);
    return r == 1 ? e.type : r;
}

static int feed(http_client *c, const char *text)
{
    return http_client_feed(c, text, strlen(text));
}

TEST(http_client, one_connection_carries_many_requests)
{
    static const char *const bodies[] = {"Content-Length: 3\r\n\r\nabc",
                                         "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"};
    char input[128], buf[128];
    CHECK_OK(http_client_init(&client, NULL));
    CHECK_OK(parse("http://a/"));
    for (int i = 0; i < 8; i++) {
        const char *method = i % 4 == 3 ? "HEAD" : "GET";
        CHECK(http_client_reusable(&client));
        CHECK(http_client_request(&client, buf, sizeof buf, method, &url, HTTP_BODY_NONE) > 0);
        CHECK_EQ(0, next_type(&client));
        snprintf(input, sizeof input, "HTTP/1.1 200 OK\r\n%s", bodies[i % 2]);
        if (i % 4 == 3) strstr(input, "\r\n\r\n")[4] = 0;
        CHECK_OK(feed(&client, input));
        CHECK_EQ(HTTP_EVENT_HEAD, next_type(&client));
        if (i % 4 != 3) CHECK_EQ(HTTP_EVENT_BODY, next_type(&client));
        CHECK_EQ(HTTP_EVENT_END, next_type(&client));
        CHECK_EQ(0, next_type(&client));
    }
    http_client_free(&client);
}

TEST(http_client, bytes_that_nobody_asked_for_are_an_error)
{
    char buf[128];
    CHECK_OK(http_client_init(&client, NULL)); // before any request
    CHECK_EQ(0, next_type(&client));
    CHECK_OK(feed(&client, "HTTP/1.1 200 OK\r\n\r\n"));
    CHECK_OK(parse("http://a/"));
    CHECK_ERR(NETIO_EPIPE,
              http_client_request(&client, buf, sizeof buf, "GET", &url, HTTP_BODY_NONE));
    CHECK_ERR(NETIO_EPROTO, next_type(&client));
    CHECK_STR("bytes that no request asked for", http_client_why(&client));
    CHECK_ERR(NETIO_EPIPE,
              http_client_request(&client, buf, sizeof buf, "GET", &url, HTTP_BODY_NONE));
    http_client_free(&client);

    CHECK_OK(http_client_init(&client, NULL)); // behind a response
    expect_response(&client, NULL);
    CHECK_OK(feed(&client, "HTTP/1.1 204 x\r\n\r\nHTTP/1.1 200 y\r\n\r\n"));
    CHECK_EQ(HTTP_EVENT_HEAD, next_type(&client));
    CHECK_EQ(HTTP_EVENT_END, next_type(&client));
    CHECK_ERR(NETIO_EPIPE,
              http_client_request(&client, buf, sizeof buf, "GET", &url, HTTP_BODY_NONE));
    CHECK_ERR(NETIO_EPROTO, next_type(&client));
    http_client_free(&client);
}

TEST(http_client, pieces_are_taken_before_more_is_fed)
{
    CHECK_OK(http_client_init(&client, NULL));
    expect_response(&client, NULL);
    CHECK_OK(feed(&client, "HTTP/1.1 200 x\r\n\r\nabc"));
    CHECK_ERR(NETIO_EBUSY, feed(&client, "def"));
    CHECK_EQ(HTTP_EVENT_HEAD, next_type(&client));
    CHECK_ERR(NETIO_EBUSY, feed(&client, "def"));
    CHECK_EQ(HTTP_EVENT_BODY, next_type(&client));
    CHECK_EQ(0, next_type(&client));
    CHECK_OK(feed(&client, "def"));
    CHECK_EQ(HTTP_EVENT_BODY, next_type(&client));
    CHECK_ERR(NETIO_EINVAL, http_client_feed(&client, NULL, 1));
    http_client_end(&client);
    CHECK_ERR(NETIO_EINVAL, feed(&client, "def"));
    CHECK_EQ(HTTP_EVENT_END, next_type(&client));
    http_client_free(&client);
}

//================================================================================================
// Limits
//================================================================================================

TEST(http_client, heads_have_a_limit)
{
    const char *input = "HTTP/1.1 204 x\r\nA: bcdefghijkl\r\n\r\n";
    talk t = talk_for(NULL);
    t.opts.head_max = strlen(input);
    ANSWERS(&t, input, "204/1 x|A=bcdefghijkl\nend\n");
    t.opts.head_max--;
    ANSWERS(&t, input, "EMSGSIZE: head longer than allowed\n");

    static char large[32 * 1024]; // the default, with one long field
    for (size_t size = 16384; size <= 16385; size++) {
        size_t n = (size_t)snprintf(large, sizeof large, "HTTP/1.1 204 x\r\nA: ");
        memset(large + n, 'a', size - n - 4);
        memcpy(large + size - 4, "\r\n\r\n", 4);
        t = talk_for(NULL);
        run(&t, large, size, 0, 0);
        CHECK_ERR(size == 16384 ? HTTP_EVENT_END : NETIO_EMSGSIZE, t.result);
        run(&t, large, size, 0, 1);
        CHECK_ERR(size == 16384 ? HTTP_EVENT_END : NETIO_EMSGSIZE, t.result);
        CHECK_EQ(16384, t.fed); // said when it is full
    }
}

TEST(http_client, fields_have_a_limit)
{
    for (int count = NETIO_HTTP_FIELDS; count <= NETIO_HTTP_FIELDS + 1; count++) {
        char input[1024];
        talk t = talk_for(NULL);
        size_t n = (size_t)snprintf(input, sizeof input, "HTTP/1.1 204 x\r\n");
        for (int i = 0; i < count; i++)
            n += (size_t)snprintf(input + n, sizeof input - n, "A: b\r\n");
        n += (size_t)snprintf(input + n, sizeof input - n, "\r\n");
        run_cuts(&t, input, n);
        if (count == NETIO_HTTP_FIELDS) CHECK_EQ(HTTP_EVENT_END, t.result);
        else CHECK_STR("EMSGSIZE: more fields than allowed\n", t.log);
    }
}

TEST(http_client, bodies_have_a_limit)
{
    talk t = talk_for(NULL);
    t.opts.body_max = 5;
    ANSWERS(&t, "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nhello",
            with_body("200/1 x|Content-Length=5\n", "hello", "end\n"));
    ANSWERS(&t, "HTTP/1.1 200 x\r\nContent-Length: 6\r\n\r\n",
            "EMSGSIZE: body longer than allowed\n");
    ANSWERS(&t, "HTTP/1.1 200 x\r\nContent-Length: 9223372036854775807\r\n\r\nhello!",
            "EMSGSIZE: body longer than allowed\n");
    ANSWERS(&t, "HTTP/1.1 200 x\r\n\r\nhello", with_body("200/1 x\n", "hello", "end\n"));
    ANSWERS(&t, "HTTP/1.1 200 x\r\n\r\nhello!",
            with_body("200/1 x\n", "hello", "EMSGSIZE: body longer than allowed\n"));
    ANSWERS(&t,
            "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            with_body("200/1 x|Transfer-Encoding=chunked\n", "hello", "end\n"));
    ANSWERS(&t,
            "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n3\r\nlo!\r\n0\r\n\r\n",
            with_body("200/1 x|Transfer-Encoding=chunked\n", "hel",
                      "EMSGSIZE: body longer than allowed\n"));
    t.opts.body_max = UINT64_MAX;
    t.open = true;
    ANSWERS(&t, "HTTP/1.1 200 x\r\nContent-Length: 9223372036854775807\r\n\r\nhello",
            "200/1 x|Content-Length=9223372036854775807\n");
}

TEST(http_client, chunks_have_a_limit)
{
    talk t = talk_for(NULL);
    t.opts.chunk_max = 5;
    ANSWERS(&t, "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            with_body("200/1 x|Transfer-Encoding=chunked\n", "hello", "end\n"));
    ANSWERS(&t, "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n6\r\n",
            with_body("200/1 x|Transfer-Encoding=chunked\n", "hel",
                      "EMSGSIZE: chunk or trailers longer than allowed\n"));
}

TEST(http_client, memory_follows_what_arrived_and_not_what_was_announced)
{
    static const char *const claims[] = {
        "HTTP/1.1 200 x\r\nContent-Length: 1000000000\r\n\r\n",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n"};
    static char block[65536];
    for (size_t i = 0; i < 2; i++) {
        CHECK_OK(http_client_init(&client, NULL));
        expect_response(&client, NULL);
        CHECK_OK(feed(&client, claims[i]));
        while (next_type(&client) > 0) continue;
        if (test_bytes() >= 0) CHECK_BETWEEN(0, 1024, test_bytes());
        for (int n = 0; n < 16; n++) {
            CHECK_OK(http_client_feed(&client, block, sizeof block));
            while (next_type(&client) > 0) continue;
        }
        // What is counted passes through; a chunk is put together.
        if (test_bytes() >= 0) CHECK_BETWEEN(0, i == 0 ? 1024 : 3 << 20, test_bytes());
        http_client_free(&client);
        CHECK_EQ(0, test_blocks());
    }
}

//================================================================================================
// Bad input
//================================================================================================

#define NO_STATUS "EPROTO: not HTTP/1: no status line\n"
#define DELIMITING "EPROTO: Content-Length or Transfer-Encoding: malformed, twice, or both\n"
#define FIELD "EPROTO: malformed field\n"
#define LINE_END "EPROTO: malformed head: a control byte, or a line end\n"
#define CHUNK "EPROTO: malformed chunk\n"
#define OK "HTTP/1.1 200 OK\r\n"
#define CHUNKED OK "Transfer-Encoding: chunked\r\n\r\n"

// Each with the number of its byte, from 1, at which it is said; 0: the last one.
static const struct {
    const char *input;
    size_t at;
    const char *want;
} bad_heads[] = {
    // No status line: said as soon as it shows.
    {"SSH-2.0-OpenSSH_9.2\r\n", 1, NO_STATUS},
    {"220 mail.example ESMTP\r\n", 1, NO_STATUS},
    {"\x15\x03\x01\x00\x02\x02\x46", 1, NO_STATUS}, // a TLS alert
    {"<html>hello</html>", 1, NO_STATUS},
    {" HTTP/1.1 200 OK\r\n\r\n", 1, NO_STATUS},
    {"http/1.1 200 OK\r\n\r\n", 1, NO_STATUS},
    {"HTTQ", 4, NO_STATUS},
    {"HTTP/2 200\r\n\r\n", 6, NO_STATUS},
    {"HTTP/2.0 200 OK\r\n\r\n", 6, NO_STATUS},
    {"HTTP/0.9 200 OK\r\n\r\n", 6, NO_STATUS},
    {"HTTP 200 OK\r\n\r\n", 5, NO_STATUS},
    {"ICY 200 OK\r\n\r\n", 1, NO_STATUS},
    {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1, NO_STATUS},
    // One, but malformed: the whole head is there.
    {"HTTP/1.10 200 OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.x 200 OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1 \r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1  200 OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1 20 OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1 2000 OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1 099 OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1 600 OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1 2x0 OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1 -20 OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1 200OK\r\n\r\n", 0, NO_STATUS},
    {"HTTP/1.1\t200 OK\r\n\r\n", 0, NO_STATUS},
    // Line ends, and what no head may hold.
    {"HTTP/1.1 200 OK\n\n", 16, LINE_END},
    {"HTTP/1.1 200 OK\r\nA: b\n\r\n", 22, LINE_END},
    {"HTTP/1.1 200 OK\rA: b\r\n\r\n", 17, LINE_END},
    {"HTTP/1.1 200 O\x01K\r\n\r\n", 15, LINE_END},
    {"\rHTTP/1.1 200 OK\r\n\r\n", 2, LINE_END},
    {"HTTP/1.1 200 OK\r\nA: b\x7f\r\n\r\n", 22, LINE_END},
    // Fields.
    {OK "A\r\n\r\n", 0, FIELD},
    {OK ": b\r\n\r\n", 0, FIELD},
    {OK "A : b\r\n\r\n", 0, FIELD},
    {OK " A: b\r\n\r\n", 0, FIELD},
    {OK "A: b\r\n folded\r\n\r\n", 0, FIELD},
    {OK "A: b\r\n\tfolded\r\n\r\n", 0, FIELD},
    {OK "A(): b\r\n\r\n", 0, FIELD},
    {OK "\xc3\xa9: b\r\n\r\n", 0, FIELD},
    {OK "A: b\r\nContent-Length : 5\r\n\r\nhello", 45, DELIMITING},
    // Where the body ends: contradictions.
    {OK "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 57, DELIMITING},
    {OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 57, DELIMITING},
    {OK "Content-Length: 5, 5\r\n\r\nhello", 41, DELIMITING},
    {OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 0, DELIMITING},
    {OK "Transfer-Encoding: chunked\r\nA: b\r\ncontent-length: 5\r\n\r\n", 0, DELIMITING},
    {OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 0, DELIMITING},
    {OK "Transfer-Encoding: gzip, chunked\r\n\r\n", 0, DELIMITING},
    {OK "Transfer-Encoding: identity\r\n\r\n", 0, DELIMITING},
    {OK "Transfer-Encoding: xchunked\r\n\r\n", 0, DELIMITING},
    {OK "Transfer-Encoding:\r\n\r\n", 0, DELIMITING},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, DELIMITING},
    {"HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", 0, DELIMITING},
    {"HTTP/1.1 100 x\r\nTransfer-Encoding: chunked\r\n\r\n", 0, DELIMITING},
    {OK "Content-Length: -1\r\n\r\n", 0, DELIMITING},
    {OK "Content-Length: +1\r\n\r\n", 0, DELIMITING},
    {OK "Content-Length:\r\n\r\n", 0, DELIMITING},
    {OK "Content-Length: 0x5\r\n\r\n", 0, DELIMITING},
    {OK "Content-Length: 5 5\r\n\r\n", 0, DELIMITING},
    {OK "Content-Length: 9223372036854775808\r\n\r\n", 0, DELIMITING},
    {OK "Content-Length: 18446744073709551621\r\n\r\n", 0, DELIMITING},
    // 101.
    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 0,
     "EPROTO: 101: another protocol, which nobody asked for\n"},
};

TEST(http_client, malformed_heads_are_named)
{
    for (size_t i = 0; i < sizeof bad_heads / sizeof bad_heads[0]; i++) {
        talk t = talk_for(NULL);
        const char *input = bad_heads[i].input;
        size_t len = strlen(input), at = bad_heads[i].at ? bad_heads[i].at : len;
        if (i == 2) len = 7; // it has a zero in it
        answers(__FILE__, __LINE__, &t, input, len, bad_heads[i].want);
        for (size_t first = 1; first <= len; first++) { // at its byte, however it is cut
            t.open = true;
            run(&t, input, first, 0, 0);
            CHECK_ERR(first < at ? 0 : NETIO_EPROTO, t.result);
        }
        run(&t, input, len, 0, 1);
        CHECK_EQ(at, t.fed);
    }
}

TEST(http_client, a_bad_byte_is_seen_where_the_decoder_of_heads_sees_it)
{
    static const char input[] = OK "A: b\r\nC\x02: d\r\n\r\n";
    talk t = talk_for(NULL);
    cuts c;
    memset(&c, 0, sizeof c);
    c.framing = netio_framing_http_head(0);
    cuts_all(&c, input, sizeof input - 1);
    run(&t, input, sizeof input - 1, 0, 1);
    CHECK_ERR(NETIO_EPROTO, t.result);
    CHECK_EQ(cuts_error_at(&c, input, sizeof input - 1), t.fed);
}

TEST(http_client, malformed_chunks_are_named)
{
    static const struct {
        const char *body;
        const char *good; // what is handed out before
        size_t at;        // byte of the body at which it is said; 0: the last
        const char *want;
    } bad[] = {
        {"g\r\n", "", 1, CHUNK},
        {"\r\n", "", 1, CHUNK},
        {"-1\r\n", "", 1, CHUNK},
        {" 1\r\na\r\n", "", 1, CHUNK},
        {"0x1\r\na\r\n", "", 2, CHUNK},
        {"1\na\r\n", "", 2, CHUNK},
        {"1 \r\na\r\n", "", 3, CHUNK},
        {"1\r\nab\r\n", "", 5, CHUNK},
        {"1\r\na\r\r\n", "", 6, CHUNK},
        {"1\r\na\n", "", 5, CHUNK},
        {"3\r\nabc\r\nx\r\n", "abc", 9, CHUNK},
        {"3\r\nabc\r\n2\r\nabc\r\n", "abc", 14, CHUNK},
        {"3\r\nabc\r\n0\r\nA\r\n\r\n", "abc", 0, CHUNK},
        {"3\r\nabc\r\n0\r\nA: b\n\r\n", "abc", 16, CHUNK},
        {"11111111111111111\r\n", "", 17, CHUNK},
        {"1;=\r\na\r\n", "", 3, CHUNK},
        {"1000001\r\n", "", 0, "EMSGSIZE: chunk or trailers longer than allowed\n"},
        {"ffffffffffffffff\r\n", "", 0, "EMSGSIZE: chunk or trailers longer than allowed\n"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        talk t = talk_for(NULL);
        char input[256];
        size_t head = strlen(CHUNKED), at = bad[i].at ? bad[i].at : strlen(bad[i].body);
        snprintf(input, sizeof input, CHUNKED "%s", bad[i].body);
        ANSWERS(&t, input,
                with_body("200/1 OK|Transfer-Encoding=chunked\n", bad[i].good, bad[i].want));
        run(&t, input, strlen(input), 0, 1);
        CHECK_EQ(head + at, t.fed);
    }
}

TEST(http_client, a_cut_response_is_never_taken_for_a_whole_one)
{
    static const char *const inputs[] = {
        OK "Content-Length: 5\r\n\r\nhello",
        CHUNKED "3\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n",
        "HTTP/1.1 100 x\r\n\r\n" OK "Content-Length: 0\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        size_t len = strlen(inputs[i]), head = (size_t)(strstr(inputs[i], "\r\n\r\n") - inputs[i]);
        for (size_t n = 0; n < len; n++) {
            talk t = talk_for(NULL);
            run_cuts(&t, inputs[i], n);
            bool nothing = n == 0 || (i == 2 && n == head + 4); // 1xx, and then the end
            CHECK_ERR(nothing ? NETIO_EOF : NETIO_ETRUNCATED, t.result);
            if (nothing) CHECK_STR("EOF: the end came instead of a response\n", t.log);
            else if (n < head + 4 || i == 2)
                CHECK_STR("ETRUNCATED: the end came inside the head\n", t.log);
            else CHECK(strstr(t.log, "ETRUNCATED: the end came inside the body\n"));
            CHECK(!t.reusable);
        }
        talk t = talk_for(NULL);
        run(&t, inputs[i], len, 0, 0);
        CHECK_EQ(HTTP_EVENT_END, t.result);
    }
    // Where the end is what ends the body, only the head can be cut.
    const char *input = OK "\r\nhello";
    for (size_t n = 0; n <= strlen(input); n++) {
        talk t = talk_for(NULL);
        run(&t, input, n, 0, 0);
        CHECK_ERR(n == 0                  ? NETIO_EOF
                  : n < strlen(input) - 5 ? NETIO_ETRUNCATED
                                          : HTTP_EVENT_END,
                  t.result);
    }
}

TEST(http_client, an_end_after_the_response_is_no_error)
{
    CHECK_OK(http_client_init(&client, NULL));
    expect_response(&client, NULL);
    CHECK_OK(feed(&client, "HTTP/1.1 204 x\r\n\r\n"));
    http_client_end(&client);
    CHECK_EQ(HTTP_EVENT_HEAD, next_type(&client));
    CHECK_EQ(HTTP_EVENT_END, next_type(&client));
    CHECK_EQ(0, next_type(&client));
    http_client_free(&client);
}

//================================================================================================
// Memory that fails, chance, transports
//================================================================================================

TEST(http_client, no_memory_is_an_error_that_passes)
{
    const char *input = CHUNKED "3\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n";
    int failed = 0;
    for (long n = 1; n <= 20; n++) {
        talk t = talk_for(NULL);
        CHECK_OK(http_client_init(&client, NULL));
        expect_response(&client, NULL);
        test_alloc_fail_at(n);
        for (const char *p = input; *p; p++) {
            char *piece = (char *)malloc(1);
            *piece = *p;
            CHECK_OK(http_client_feed(&client, piece, 1));
            drain(&t, &client);
            if (t.result == NETIO_ENOMEM) {
                failed++;
                CHECK_STR("", http_client_why(&client));
                t.result = 0;
                drain(&t, &client);
            }
            free(piece);
        }
        test_alloc_fail_at(0);
        CHECK_EQ(HTTP_EVENT_END, t.result);
        CHECK_EQ(5, t.body);
        CHECK_EQ(netio_crc32(0, "hello", 5), t.crc);
        http_client_free(&client);
    }
    CHECK(failed > 0);
}

// A response of random shape; its body is what test_fill gives for `seed`.
static size_t make_response(char *out, size_t cap, uint32_t *state, size_t body, uint32_t seed)
{
    static char content[4096];
    size_t n = 0, at = 0;
    unsigned shape = test_random(state) % 3;
    test_fill(content, body, seed);
    if (test_random(state) % 4 == 0) n += (size_t)snprintf(out, cap, "HTTP/1.1 100 x\r\n\r\n");
    n += (size_t)snprintf(out + n, cap - n, OK);
    if (shape == 1)
        n += (size_t)snprintf(out + n, cap - n, "Content-Length: %u\r\n", (unsigned)body);
    if (shape == 2) n += (size_t)snprintf(out + n, cap - n, "Transfer-Encoding: chunked\r\n");
    n += (size_t)snprintf(out + n, cap - n, "\r\n");
    if (shape != 2) {
        memcpy(out + n, content, body);
        return n + body;
    }
    netio_framing framing = netio_framing_chunked(0);
    while (at <= body) {
        netio_frame f;
        memset(&f, 0, sizeof f);
        f.len = at == body ? 0 : 1 + test_random(state) % (body - at);
        f.data = at == body ? NULL : (const uint8_t *)content + at;
        ptrdiff_t wrote = netio_encode_into(out + n, cap - n, &framing, &f);
        CHECK(wrote > 0);
        n += (size_t)wrote;
        if (at == body) break;
        at += f.len;
    }
    return n;
}

TEST(http_client, random_responses_in_random_pieces_arrive)
{
    static char input[16384], content[4096];
    uint32_t state = 7;
    for (int i = 0; i < 400; i++) {
        talk t = talk_for(NULL);
        size_t body =
            test_random(&state) % 3 ? test_random(&state) % 100 : test_random(&state) % 3000;
        uint32_t seed = test_random(&state);
        size_t len = make_response(input, sizeof input, &state, body, seed);
        run(&t, input, len, 1 + test_random(&state) % len, test_random(&state) % 50);
        CHECK_EQ(HTTP_EVENT_END, t.result);
        CHECK_EQ(body, t.body);
        test_fill(content, body, seed);
        CHECK_EQ(netio_crc32(0, content, body), t.crc);
    }
}

TEST(http_client, responses_survive_any_bytes)
{
    unsigned char input[300];
    uint32_t state = 3;
    static const char alphabet[] =
        "HTTP/1.1 200\r\n\r\n:;0aContent-Length: Transfer-Encoding: chunked";
    for (int i = 0; i < 3000; i++) {
        talk t = talk_for(test_random(&state) % 8 ? "GET" : "HEAD");
        size_t len = test_random(&state) % 60, n = 0;
        if (i % 2)
            n = (size_t)snprintf((char *)input, sizeof input, "%s", i % 4 == 1 ? CHUNKED : OK);
        for (size_t end = n + len; n < end; n++)
            input[n] = (unsigned char)alphabet[test_random(&state) % (sizeof alphabet - 1)];
        run(&t, input, n, 0, 0);
        talk other = talk_for(t.method);
        run(&other, input, n, 0, 1 + test_random(&state) % 5);
        CHECK_STR(t.log, other.log);
    }
}

// --- a stream that waits -------------------------------------------------------------------------

typedef struct peer {
    netio_socket s;
    const char *answer;
    char got[1024]; // the request, with its body
    size_t want;    // bytes of it
    int err;
} peer;

static void peer_run(void *arg)
{
    peer *p = (peer *)arg;
    p->err = netio_recv_exact(p->s, p->got, p->want, NULL, 10000);
    for (const char *at = p->answer; *at && p->err == 0; at++) // one byte at a time
        p->err = netio_send_all(p->s, at, 1, NULL, 10000);
    netio_close_gracefully(&p->s, 1 << 20, 10000);
}

TEST(http_client, posts_chunks_and_reads_the_answer_over_a_stream_that_waits)
{
    static const char want[] = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "5\r\nhello\r\n0\r\n\r\n";
    char buf[256], body[16];
    size_t len = 0;
    netio_socket s;
    peer p;
    test_thread thread;
    http_event e;
    int r = 0;
    memset(&p, 0, sizeof p);
    test_tcp_pair(&s, &p.s);
    p.answer = OK "Content-Length: 5\r\n\r\nworld";
    p.want = sizeof want - 1;
    test_thread_start(&thread, peer_run, &p);

    netio_stream st = netio_stream_from_socket(s);
    netio_framing chunked = netio_framing_chunked(0);
    netio_frame piece;
    memset(&piece, 0, sizeof piece);
    CHECK_OK(http_client_init(&client, NULL));
    CHECK_OK(parse("http://a/x"));
    ptrdiff_t n = http_client_request(&client, buf, sizeof buf, "POST", &url, HTTP_BODY_CHUNKED);
    CHECK_OK(netio_stream_send_all(&st, buf, (size_t)n, NULL, 10000));
    piece.data = (const uint8_t *)"hello";
    piece.len = 5;
    CHECK_OK(netio_stream_write_frame(&st, &chunked, &piece, 10000));
    memset(&piece, 0, sizeof piece);
    CHECK_OK(netio_stream_write_frame(&st, &chunked, &piece, 10000));
    do {
        n = netio_stream_recv(&st, buf, sizeof buf, 10000);
        if (n == NETIO_EOF) http_client_end(&client);
        else CHECK_OK(http_client_feed(&client, buf, n > 0 ? (size_t)n : 0));
        while ((r = http_client_next(&client, &e)) > 0 && e.type != HTTP_EVENT_END)
            if (e.type == HTTP_EVENT_BODY) memcpy(body + len, e.data, e.len), len += e.len;
    } while (r == 0);
    CHECK_EQ(1, r);
    CHECK_EQ(5, len);
    CHECK_MEM("world", body, 5);
    CHECK(http_client_reusable(&client));
    http_client_free(&client);
    CHECK_OK(netio_stream_close(&st));
    test_thread_join(&thread);
    CHECK_OK(p.err);
    CHECK_MEM(want, p.got, sizeof want - 1);
}

// --- a connection of the loop --------------------------------------------------------------------

typedef struct asking {
    http_client http;
    char body[64];
    size_t len;
    int result, status;
} asking;

static void asking_take(netio_conn c)
{
    asking *a = (asking *)netio_conn_user(c);
    http_event e;
    int r;
    while ((r = http_client_next(&a->http, &e)) > 0) {
        if (e.type == HTTP_EVENT_HEAD) a->status = e.head->status;
        if (e.type == HTTP_EVENT_BODY) memcpy(a->body + a->len, e.data, e.len), a->len += e.len;
        if (e.type == HTTP_EVENT_END) break;
    }
    a->result = r;
    if (r != 0) netio_conn_close(c);
}

static void asking_open(netio_conn c)
{
    asking *a = (asking *)netio_conn_user(c);
    char buf[256];
    ptrdiff_t n = http_client_request(&a->http, buf, sizeof buf, "GET", &url, HTTP_BODY_NONE);
    if (n > 0) netio_conn_write(c, buf, (size_t)n);
}

static void asking_data(netio_conn c, const void *data, size_t len)
{
    asking *a = (asking *)netio_conn_user(c);
    http_client_feed(&a->http, data, len);
    asking_take(c);
}

static void asking_eof(netio_conn c)
{
    asking *a = (asking *)netio_conn_user(c);
    http_client_end(&a->http);
    asking_take(c);
}

static void serve_frame(netio_conn c, const netio_frame *f)
{
    const char *answer = (const char *)netio_conn_user(c);
    netio_http_head head;
    if (netio_http_parse(&head, f->data, f->len) < 0) netio_conn_abort(c);
    netio_conn_write(c, answer, strlen(answer));
    netio_conn_close(c);
}

TEST(http_client, reads_the_answer_on_a_connection_of_the_loop)
{
    static char whole[] = CHUNKED "5\r\nhello\r\n0\r\n\r\n", cut[] = CHUNKED "5\r\nhel";
    static char closed[] = OK "\r\nhello";
    static char *const answers_[] = {whole, closed, cut};
    for (int i = 0; i < 3; i++) {
        netio_handler ask, serve;
        netio_pair_opts opts;
        netio_conn pair[2];
        netio_loop *loop;
        asking a;
        memset(&ask, 0, sizeof ask);
        memset(&serve, 0, sizeof serve);
        memset(&opts, 0, sizeof opts);
        memset(&a, 0, sizeof a);
        ask.on_open = asking_open;
        ask.on_data = asking_data;
        ask.on_eof = asking_eof;
        serve.on_frame = serve_frame;
        opts.link.piece_max = 3;
        opts.a.user = &a;
        opts.b.user = answers_[i];
        opts.b.framing = netio_framing_http_head(0);
        CHECK_OK(http_client_init(&a.http, NULL));
        CHECK_OK(parse("http://a/"));
        CHECK_OK(netio_loop_create(&loop, NULL));
        CHECK_OK(netio_conn_pair(pair, loop, &ask, &serve, &opts));
        CHECK_OK(netio_loop_run(loop));
        CHECK_ERR(i == 2 ? NETIO_ETRUNCATED : 1, a.result);
        CHECK_EQ(200, a.status);
        if (i < 2) CHECK_EQ(5, a.len);
        if (i < 2) CHECK_MEM("hello", a.body, 5);
        CHECK_OK(netio_loop_destroy(loop));
        http_client_free(&a.http);
    }
}

TEST_MAIN("http_client", T(http_client, url_gives_what_dialing_and_asking_need),
          T(http_client, url_refuses_all_else), T(http_client, url_lengths_have_limits),
          T(http_client, url_without_a_path_counts_its_slash),
          T(http_client, redirects_resolve_as_the_rfc_says),
          T(http_client, redirects_may_lead_elsewhere),
          T(http_client, redirects_that_are_no_urls_are_refused),
          T(http_client, requests_are_written), T(http_client, requests_take_more_fields),
          T(http_client, requests_that_make_no_sense_are_refused),
          T(http_client, bodies_end_by_length_by_chunk_and_by_the_end),
          T(http_client, trailers_come_with_the_end),
          T(http_client, some_answers_have_no_body_whatever_they_say),
          T(http_client, interim_responses_are_skipped),
          T(http_client, empty_lines_before_a_head_are_skipped),
          T(http_client, whether_a_connection_goes_on),
          T(http_client, one_connection_carries_many_requests),
          T(http_client, bytes_that_nobody_asked_for_are_an_error),
          T(http_client, pieces_are_taken_before_more_is_fed), T(http_client, heads_have_a_limit),
          T(http_client, fields_have_a_limit), T(http_client, bodies_have_a_limit),
          T(http_client, chunks_have_a_limit),
          T(http_client, memory_follows_what_arrived_and_not_what_was_announced),
          T(http_client, malformed_heads_are_named),
          T(http_client, a_bad_byte_is_seen_where_the_decoder_of_heads_sees_it),
          T(http_client, malformed_chunks_are_named),
          T(http_client, a_cut_response_is_never_taken_for_a_whole_one),
          T(http_client, an_end_after_the_response_is_no_error),
          T(http_client, no_memory_is_an_error_that_passes),
          T(http_client, random_responses_in_random_pieces_arrive),
          T(http_client, responses_survive_any_bytes),
          T(http_client, posts_chunks_and_reads_the_answer_over_a_stream_that_waits),
          T(http_client, reads_the_answer_on_a_connection_of_the_loop))
