// HTTP heads, chunked bodies, base64, the PROXY protocol and tunnels on any bytes. See fuzz.h.
//
// The first byte picks what is tried, the rest is its input; it lies in a block of exactly its
// length, so that one byte too far is seen by ASan and valgrind.
#include "fuzz_cuts.h"

static bool inside(netio_buf piece, const uint8_t *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)piece.data;
    return !p || (p >= data && piece.len <= len && p + piece.len <= data + len);
}

static bool has(const uint8_t *data, size_t len, const char *bytes)
{
    for (size_t i = 0; i < len; i++)
        if (strchr(bytes, data[i]) && data[i]) return true;
    return false;
}

// What holds for every head that is taken; it is written anew from its pieces and read again.
static void check_head(const netio_http_head *h, const uint8_t *data, size_t len)
{
    static uint8_t text[1 << 18];
    size_t at = 0;
    netio_http_head again;
    netio_buf line[4] = {h->method, h->target, h->reason, {NULL, 0}};
    bool request = h->status == 0;
    for (int i = 0; i < 3; i++) {
        HOLDS(inside(line[i], data, len));
        HOLDS(!has((const uint8_t *)line[i].data, line[i].len, "\r\n"));
    }
    HOLDS(request == (h->method.len > 0) && request == (h->target.len > 0));
    HOLDS(h->status == 0 || (h->status >= 100 && h->status <= 599));
    HOLDS(h->minor >= 0 && h->minor <= 9 && h->field_count <= NETIO_HTTP_FIELDS);
    HOLDS(h->content_length >= -1 && (!h->chunked || h->content_length == -1));
    if (len > sizeof text / 2) return;
    if (request)
        at += (size_t)snprintf((char *)text, sizeof text, "%.*s %.*s HTTP/1.%d\r\n",
                               (int)h->method.len, (const char *)h->method.data, (int)h->target.len,
                               (const char *)h->target.data, h->minor);
    else
        at += (size_t)snprintf((char *)text, sizeof text, "HTTP/1.%d %d %.*s\r\n", h->minor,
                               h->status, (int)h->reason.len,
                               h->reason.data ? (const char *)h->reason.data : "");
    for (size_t i = 0; i < h->field_count; i++) {
        netio_buf name = h->names[i], value = h->values[i];
        HOLDS(inside(name, data, len) && inside(value, data, len) && name.len > 0);
        HOLDS(!has((const uint8_t *)name.data, name.len, "\r\n\t :"));
        HOLDS(!has((const uint8_t *)value.data, value.len, "\r\n"));
        at += (size_t)snprintf((char *)text + at, sizeof text - at, "%.*s: %.*s\r\n", (int)name.len,
                               (const char *)name.data, (int)value.len, (const char *)value.data);
    }
    memcpy(text + at, "\r\n", 3);
    HOLDS(netio_http_parse(&again, text, at + 2) == 0);
    HOLDS(again.status == h->status && again.minor == h->minor);
    HOLDS(again.content_length == h->content_length && again.chunked == h->chunked);
    HOLDS(again.keep_alive == h->keep_alive && again.field_count == h->field_count);
    HOLDS(again.upgrade_websocket == h->upgrade_websocket);
    HOLDS(netio_http_add((char *)text, sizeof text, at + 2, "X-Last", "y") == (ptrdiff_t)at + 13);
}

static void try_head(const uint8_t *data, size_t len)
{
    netio_http_head h;
    char answer[512], key[25] = "dGhlIHNhbXBsZSBub25jZQ==";
    size_t n = 0;
    if (netio_http_parse(&h, data, len) != 0) return;
    check_head(&h, data, len);
    int err = netio_ws_answer(answer, sizeof answer, &n, &h);
    HOLDS((err == 0 || err == NETIO_EPROTO) && n > 0 && n == strlen(answer));
    HOLDS(netio_ws_check(&h, key) != 0 || h.status == 101);
    HOLDS(netio_http_parse(&h, answer, n) == 0 && (h.status == 101) == (err == 0));
}

static void try_stream(netio_framing framing, const uint8_t *data, size_t len)
{
    fuzz_cuts(framing, data, len);
    framing.max = 40;
    fuzz_cuts(framing, data, len);
}

static void try_base64(const uint8_t *data, size_t len)
{
    char *text = (char *)malloc(len / 3 * 4 + 5);
    uint8_t *back = (uint8_t *)malloc(len + 1);
    if (!text || !back) abort();
    ptrdiff_t n = netio_base64_encode(text, len / 3 * 4 + 5, data, len);
    HOLDS(n == (ptrdiff_t)((len + 2) / 3 * 4));
    HOLDS(netio_base64_decode(back, len, text, (size_t)n) == (ptrdiff_t)len);
    HOLDS(len == 0 || memcmp(data, back, len) == 0);
    n = netio_base64_decode(back, len, (const char *)data, len); // and as text
    HOLDS(n >= 0 || n == NETIO_EPROTO);
    if (n >= 0) { // there is one text only for the same bytes
        HOLDS(netio_base64_encode(text, len / 3 * 4 + 5, back, (size_t)n) == (ptrdiff_t)len);
        HOLDS(len == 0 || memcmp(text, data, len) == 0);
    }
    free(text);
    free(back);
}

static void try_proxy(const uint8_t *data, size_t len)
{
    netio_addr src, dst, again[2];
    netio_buf rest, value;
    int type;
    ptrdiff_t want = netio_proxy_parse(data, len, &src, &dst), n;
    uint8_t out[300];
    HOLDS(want <= (ptrdiff_t)len);
    for (size_t front = 0; front < len; front++) { // no other verdict, only none yet
        n = netio_proxy_parse(data, front, &again[0], &again[1]);
        HOLDS(n == 0 || n == want);
    }
    if (want <= 0) return;
    rest = netio_proxy_tlvs(data, (size_t)want);
    HOLDS(inside(rest, data, (size_t)want));
    while ((n = netio_proxy_next_tlv(&rest, &type, &value)) > 0)
        HOLDS(inside(value, data, (size_t)want));
    HOLDS(n == 0);
    if (netio_addr_family(&src) == 0 || netio_addr_family(&dst) == 0) return;
    n = netio_proxy_write(out, sizeof out, 2, &src, &dst);
    HOLDS(n > 0 && netio_proxy_parse(out, (size_t)n, &again[0], &again[1]) == n);
    HOLDS(netio_addr_equal(&src, &again[0]) && netio_addr_equal(&dst, &again[1]));
}

// The first line is the proxy, the second the target, the rest what the proxy says.
static void try_tunnel(const uint8_t *data, size_t len)
{
    static netio_tunnel a, b;
    char proxy[600], target[600];
    const uint8_t *end[2];
    size_t used, total = 0, at;
    end[0] = len ? (const uint8_t *)memchr(data, '\n', len) : NULL;
    if (!end[0]) return;
    at = (size_t)(end[0] - data) + 1;
    end[1] = at < len ? (const uint8_t *)memchr(data + at, '\n', len - at) : NULL;
    if (!end[1] || end[1] - data > 590) return;
    memcpy(proxy, data, at - 1);
    proxy[at - 1] = 0;
    memcpy(target, data + at, (size_t)(end[1] - data) - at);
    target[(size_t)(end[1] - data) - at] = 0;
    at = (size_t)(end[1] - data) + 1;
    if (netio_tunnel_init(&a, proxy, target) != 0) return;
    b = a;
    int r = netio_tunnel_input(&a, data + at, len - at, &used), s = 0;
    for (size_t n; s == 0 && at + total < len; total += n) { // byte by byte: the same
        HOLDS(netio_tunnel_output(&b).len <= sizeof b.out);
        s = netio_tunnel_input(&b, data + at + total, 1, &n);
        HOLDS(n == 1);
    }
    HOLDS(r == s && used == total && used <= len - at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = size ? size - 1 : 0;
    uint8_t *exact;
    if (size == 0) return 0;
    exact = (uint8_t *)malloc(len ? len : 1);
    if (!exact) return 0;
    if (len) memcpy(exact, data + 1, len);
    switch ((uint8_t)(data[0] - 0x30) % 6) { // a digit, so that seeds can be read
    case 0: try_head(exact, len); break;
    case 1: try_stream(netio_framing_http_head(0), exact, len); break;
    case 2: try_stream(netio_framing_chunked(0), exact, len); break;
    case 3: try_base64(exact, len); break;
    case 4: try_proxy(exact, len); break;
    default: try_tunnel(exact, len); break;
    }
    free(exact);
    return 0;
}

#ifndef NETIO_LIBFUZZER
// clang-format off
#define V2 "\r\n\r\n\0\r\nQUIT\n"
static const fuzz_seed seeds[] = {
    SEED("0" "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    SEED("0" "GET http://a/b?c HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    SEED("0" "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"),
    SEED("0" "OPTIONS * HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n"),
    SEED("0" "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nConnection: close\r\n\r\n"),
    SEED("0" "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    SEED("0" "HTTP/1.1 304\r\n\r\n"),
    SEED("0" "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"),
    SEED("0" "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
    SEED("1" "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    SEED("1" "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nGET /b HTTP/1.1\r\n\r\n"),
    SEED("2" "4\r\nWiki\r\n5;a=b;c=\"d\\\"\"\r\npedia\r\n0\r\nA: b\r\n\r\n"),
    SEED("2" "0000a ; x\r\n0123456789\r\n000\r\n\r\n1\r\na\r\n"),
    SEED("2" "ffffffffffffffff\r\n"), SEED("2" "29\r\n0123"), SEED("2" "0\r\n\r\n0\r\n\r\n"),
    SEED("3" "Zm9vYg=="), SEED("3" "Zm9vYmE="), SEED("3" "Zm9vYmFy"), SEED("3" ""),
    SEED("4" "PROXY TCP4 192.0.2.1 192.0.2.2 1 65535\r\nGET"),
    SEED("4" "PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 1 2\r\n"), SEED("4" "PROXY UNKNOWN x\r\n"),
    SEED("4" V2 "\x21\x11\0\x0c" "\1\2\3\4\5\6\7\x8\0\x50\1\xbb"),
    SEED("4" V2 "\x21\x21\0\x29" "0123456789abcdef0123456789abcdef\0\x50\1\xbb" "\x04\0\2zz"),
    SEED("4" V2 "\x20\x00\0\0"),
    SEED("4" V2 "\x21\x11\0\x13" "\1\2\3\4\5\6\7\x8\0\x50\1\xbb" "\x03\0\4\xc4\x9c\xda\x27"),
    SEED("5" "socks5://p:1\na:1\n\5\0\5\0\0\1\0\0\0\0\0\0SSH"),
    SEED("5" "socks5://u:p@p:1\n[::1]:1\n\5\2\1\0\5\0\0\3\4host\0\0x"),
    SEED("5" "socks5://p:1\n1.2.3.4:1\n\5\0\5\5"),
    SEED("5" "http://u%20:p@p:1\na.example:443\nHTTP/1.1 100 x\r\n\r\n"
         "HTTP/1.1 200 OK\r\nA: b\r\n\r\nx"),
    SEED("5" "http://p:1\n[::1]:443\nHTTP/1.1 407 no\r\n\r\n"),
};
static const char alphabet[] = "\r\n\t :;=,\"\\/@%0123456789abcdefxGHPT.+-\0\xff\x7f\1\x21\x11";
// clang-format on

FUZZ_MAIN(seeds, alphabet)
#endif // NETIO_LIBFUZZER
