// examples/common/http_client.h on any bytes: URLs, redirects, responses in pieces. See fuzz.h.
//
// The first byte picks what is tried, the rest is its input; it lies in a block of exactly its
// length, so that one byte too far is seen by ASan and valgrind.
#include "fuzz.h"

#include "../../examples/common/http_client.h"

static void check_url(const http_url *u)
{
    char text[HTTP_TARGET_MAX + 300], buf[HTTP_TARGET_MAX + 400];
    http_url again;
    http_client c;
    netio_http_head head;
    netio_buf host, port;
    HOLDS(u->port > 0 && u->host[0] && u->target[0] == '/' && !strchr(u->target, '#'));
    HOLDS(netio_addr_split(&host, &port, u->address, strlen(u->address)) == 0);
    HOLDS(host.len == strlen(u->host) && memcmp(host.data, u->host, host.len) == 0);
    int n = snprintf(text, sizeof text, "%s://%s%s", u->tls ? "https" : "http", u->authority,
                     u->target);
    memset(&again, 0, sizeof again);
    HOLDS(http_url_parse(&again, text, (size_t)n) == 0);
    HOLDS(again.tls == u->tls && again.port == u->port && strcmp(again.host, u->host) == 0);
    HOLDS(strcmp(again.address, u->address) == 0 && strcmp(again.target, u->target) == 0);
    HOLDS(strcmp(again.authority, u->authority) == 0);

    HOLDS(http_client_init(&c, NULL) == 0); // nothing in it breaks a request
    ptrdiff_t len = http_client_request(&c, buf, sizeof buf, "GET", u, HTTP_BODY_NONE);
    HOLDS(len > 0 && netio_http_parse(&head, buf, (size_t)len) == 0 && head.field_count == 1);
    HOLDS(netio_buf_equal(head.target, u->target) && netio_buf_equal(head.values[0], u->authority));
    http_client_free(&c);
}

static void try_url(const uint8_t *data, size_t len)
{
    http_url u;
    if (http_url_parse(&u, (const char *)data, len) == 0) check_url(&u);
}

static void try_redirect(const uint8_t *data, size_t len)
{
    static const char bases[2][28] = {"http://a/b/c/d;p?q", "https://[::1]:8443/?x/y"};
    for (int i = 0; i < 2; i++) {
        http_url base, u;
        HOLDS(http_url_parse(&base, bases[i], strlen(bases[i])) == 0);
        if (http_url_resolve(&u, &base, (const char *)data, len) != 0) continue;
        check_url(&u);
        size_t path = strcspn(u.target, "?");
        for (size_t at = 0; at < path; at++) // no dots are left
            HOLDS(strncmp(u.target + at, "/./", 3) != 0 && strncmp(u.target + at, "/../", 4) != 0);
    }
}

typedef struct story {
    uint32_t sum; // of all that was said, but for how a body was cut
    uint64_t body;
    int result, heads;
} story;

static void tell(story *s, http_client *c, uint64_t body_max)
{
    http_event e;
    while (s->result == 0) {
        int r = http_client_next(c, &e);
        if (r <= 0) {
            s->result = r;
            return;
        }
        if (e.type == HTTP_EVENT_HEAD) {
            HOLDS(s->heads++ == 0 && e.head->status >= 200 && e.head->status <= 599);
            s->sum = netio_crc32(s->sum, e.head->reason.data, e.head->reason.len);
            for (size_t i = 0; i < e.head->field_count; i++)
                s->sum = netio_crc32(s->sum, e.head->values[i].data, e.head->values[i].len);
        } else if (e.type == HTTP_EVENT_BODY) {
            HOLDS(s->heads == 1 && e.len > 0);
            s->body += e.len;
            HOLDS(s->body <= body_max);
        } else {
            HOLDS(e.type == HTTP_EVENT_END && s->heads == 1);
            s->result = HTTP_EVENT_END;
        }
        if (e.type != HTTP_EVENT_HEAD) s->sum = netio_crc32(s->sum, e.data, e.len);
    }
}

// Pieces of `step` bytes, each in a block of its own.
static story read_all(const uint8_t *data, size_t len, size_t step, const char *method,
                      const http_client_opts *opts)
{
    http_client c;
    http_url u;
    story s;
    char buf[100];
    memset(&s, 0, sizeof s);
    HOLDS(http_client_init(&c, opts) == 0 && http_url_parse(&u, "http://a/", 9) == 0);
    HOLDS(http_client_request(&c, buf, sizeof buf, method, &u, HTTP_BODY_NONE) > 0);
    for (size_t at = 0, n; at < len && s.result == 0; at += n) {
        n = len - at < step ? len - at : step;
        uint8_t *piece = (uint8_t *)malloc(n);
        if (!piece) abort();
        memcpy(piece, data + at, n);
        HOLDS(http_client_feed(&c, piece, n) == 0);
        tell(&s, &c, opts->body_max);
        free(piece);
    }
    http_client_end(&c);
    tell(&s, &c, opts->body_max);
    HOLDS(s.result != 0 && (s.result == HTTP_EVENT_END) == (http_client_why(&c)[0] == 0));
    http_client_free(&c);
    return s;
}

static void try_response(const uint8_t *data, size_t len, const char *method, bool tight)
{
    http_client_opts opts = {0, 0, UINT64_MAX};
    if (tight) opts.head_max = 60, opts.chunk_max = 10, opts.body_max = 20;
    story whole = read_all(data, len, len, method, &opts);
    for (size_t step = 1; step <= 3; step++) {
        story cut = read_all(data, len, step, method, &opts);
        HOLDS(cut.result == whole.result && cut.sum == whole.sum && cut.body == whole.body);
        HOLDS(cut.heads == whole.heads);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = size ? size - 1 : 0;
    uint8_t *exact;
    if (size == 0) return 0;
    exact = (uint8_t *)malloc(len ? len : 1);
    if (!exact) return 0;
    if (len) memcpy(exact, data + 1, len);
    switch ((uint8_t)(data[0] - 0x30) % 5) { // a digit, so that seeds can be read
    case 0: try_url(exact, len); break;
    case 1: try_redirect(exact, len); break;
    case 2: try_response(exact, len, "GET", false); break;
    case 3: try_response(exact, len, "GET", true); break;
    default: try_response(exact, len, "HEAD", false); break;
    }
    free(exact);
    return 0;
}

#ifndef NETIO_LIBFUZZER
// clang-format off
static const fuzz_seed seeds[] = {
    SEED("0" "http://a.example/b?c=d#e"), SEED("0" "HTTPS://A:8443"), SEED("0" "http://[::1]:80/x"),
    SEED("0" "http://127.0.0.1/%41?[x]"), SEED("0" "http://a:/"), SEED("0" "https://a?b"),
    SEED("0" "http://[::ffff:192.0.2.1]"), SEED("0" "http://u:p@a/"), SEED("0" "http://0x7f.1/"),
    SEED("1" "../../g?y#s"), SEED("1" "//b/c/../d"), SEED("1" "https://b:1/./x"), SEED("1" "?y"),
    SEED("1" ""), SEED("1" "/a/b/../../../c/."), SEED("1" "g;x=1/../y"),
    SEED("1" "/..//.//..a/..."),
    SEED("2" "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    SEED("2" "HTTP/1.1 100 x\r\n\r\nHTTP/1.0 404 No\r\nA: b\r\n\r\nhello"),
    SEED("2" "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n"),
    SEED("2" "\r\nHTTP/1.1 204\r\nConnection: close\r\n\r\n"), SEED("2" "SSH-2.0-x\r\n"),
    SEED("2" "HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n"),
    SEED("3" "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n01234567890123456789"),
    SEED("3" "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n"),
    SEED("3" "HTTP/1.1 200 OK\r\n\r\n012345678901234567890"),
    SEED("3" "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\nb\r\n"),
    SEED("4" "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    SEED("4" "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx"),
};
static const char alphabet[] = "\r\n\t :;=,\"\\/@%?#[]0123456789abcdefxGHPT.+-\0\xff\x7f\1";
// clang-format on

FUZZ_MAIN(seeds, alphabet)
#endif // NETIO_LIBFUZZER
