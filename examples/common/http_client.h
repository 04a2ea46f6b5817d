// An HTTP/1.1 client without sockets: it writes requests, and turns the bytes that come back, cut
// anywhere, into a head, pieces of a body, and an end. One file, for use with any transport: a
// stream that waits, a connection of the loop, TLS or not, a test.
//
//     http_client_init(&c, NULL);
//     http_url_parse(&url, text, strlen(text));
//     n = http_client_request(&c, buf, sizeof buf, "GET", &url, -1);
//     netio_stream_send_all(st, buf, (size_t)n, NULL, timeout_ms);
//     do {
//         n = netio_stream_recv(st, buf, sizeof buf, timeout_ms);
//         if (n == NETIO_EOF) http_client_end(&c);
//         else if (n < 0) break; // the transport's error
//         else http_client_feed(&c, buf, (size_t)n);
//         while ((r = http_client_next(&c, &ev)) > 0 && ev.type != HTTP_EVENT_END) use(&ev);
//     } while (r == 0);
//     // 1: all of it came; below 0: see http_client_why; 0: the transport failed with `n`
//     http_client_free(&c);
//
// On a connection of the loop feed in on_data, end in on_eof, and take events after either.
//
// It is strict where leniency lets two parties read two messages out of the same bytes, and where
// the server could make it keep more than was agreed: see netio_http_parse. One request at a time;
// no redirects followed by itself, no cookies, no content codings, no pipelining, no upgrade.
// Errors are netio's; outputs are written on success only. Nothing is shared: any thread.
#ifndef HTTP_CLIENT_H
#define HTTP_CLIENT_H

#include "../../netio.h"

#include <stdio.h>
#include <string.h>

//================================================================================================
// URLs: "http://host:port/path?query" and https. RFC 3986, RFC 9110 section 4.2
//================================================================================================

enum { HTTP_TARGET_MAX = 2048 }; // bytes of path and query

typedef struct http_url {
    bool tls; // https
    uint16_t port;
    char host[256];                   // in lower case, IPv6 without brackets
    char address[264];                // "host:port", what netio_connect and netio_conn_dial take
    char authority[264];              // for the Host field: the scheme's own port is left out
    char target[HTTP_TARGET_MAX + 1]; // "/path?query", as it is sent; a fragment is left out
} http_url;

// Take a URL apart (`len` bytes, no NUL needed). Nothing is decoded, and what should have been
// encoded (spaces, controls, non-ASCII, a bare '%', one of "<>\^`{|}) is refused, so nothing in it
// can break a request. Hosts are names of letters, digits, '-' and '_', and addresses; "127.1" and
// the like, which others read as addresses, are neither.
//
// Returns  0; NETIO_EINVAL (no URL of this kind; a user or password; port 0 or above 65535),
//          NETIO_ENOTSUP (another scheme), NETIO_ENAMETOOLONG (host over 253, target over
//          HTTP_TARGET_MAX bytes)
static inline int http_url_parse(http_url *out, const char *text, size_t len);

// What the Location of a redirect means, seen from `base`, where it was found: a whole URL,
// "//host/path", "/path", "path", "?query", with "." and ".." in it. `out` may be `base`.
// Before following it look whether `tls` became false, and count: there are circles.
//
// Returns  0; as http_url_parse
// See      RFC 3986 section 5
static inline int http_url_resolve(http_url *out, const http_url *base, const char *location,
                                   size_t len);

//================================================================================================
// Requests and responses
//================================================================================================

enum { HTTP_INTERIM_MAX = 16 }; // 1xx responses that are skipped before one that counts

typedef struct http_client_opts {
    size_t head_max;   // bytes of one head; 0: 16 KiB
    size_t chunk_max;  // bytes of one chunk, which is handed out whole; 0: 16 MiB
    uint64_t body_max; // bytes of one body; 0: 1 GiB
} http_client_opts;

// HEAD comes once, BODY for each piece, END once. A 1xx is never seen.
enum { HTTP_EVENT_HEAD = 1, HTTP_EVENT_BODY, HTTP_EVENT_END };

typedef struct http_event {
    int type;                    // HTTP_EVENT_*
    const netio_http_head *head; // HEAD: status, fields
    const void *data;            // BODY: the piece; END: trailers of a chunked body, as lines
    size_t len;                  // of these, at least 1 for BODY
} http_event;

//    IDLE --request--> HEADS --head--> SIZED, CHUNKED, TO_END --body--> IDLE
//    from each one also to FAILED, and from there nowhere
enum { HTTP__IDLE, HTTP__HEADS, HTTP__SIZED, HTTP__CHUNKED, HTTP__TO_END, HTTP__FAILED };

// All fields private.
typedef struct http_client {
    netio_decoder d;
    netio_http_head head;
    http_client_opts opts; // with the defaults put in
    uint64_t left;         // bytes of the body that are to come, or may
    int state, interim, err;
    bool headless; // the answer to HEAD: no body, whatever its fields say
    bool fresh;    // the body's format is not set yet, because the head still lies there
    bool keep;     // another request may follow
    const char *why;
} http_client;

// For one connection. `opts` may be NULL. A head or chunk that arrives in pieces is put together in
// memory of netio's, which grows with what arrived up to head_max or chunk_max; free gives it back.
// Returns 0; as netio_decoder_init.
static inline int http_client_init(http_client *c, const http_client_opts *opts);
static inline void http_client_free(http_client *c);

enum { HTTP_BODY_NONE = -1, HTTP_BODY_CHUNKED = -2 };

// Write the head of a request into `buf`, and expect its response. More fields go into it with
// netio_http_add. body_len: bytes of a body that you send behind it, or HTTP_BODY_NONE, or
// HTTP_BODY_CHUNKED: then send it in frames of netio_framing_chunked (netio_stream_write_frame),
// and at its end one with `data` NULL.
//
// Returns  its length; NETIO_ENOSPC; NETIO_EINVAL (a method that is no token, or CONNECT);
//          NETIO_EBUSY (the last response is not over), NETIO_EPIPE (http_client_reusable is
//          false)
static inline ptrdiff_t http_client_request(http_client *c, char *buf, size_t cap,
                                            const char *method, const http_url *url,
                                            int64_t body_len);

// What arrived, and that nothing more will. Only a clean end counts (NETIO_EOF of a receive,
// on_eof): after an error of the transport, also NETIO_ETRUNCATED of TLS, throw the client away.
// `data` is borrowed until next() has returned 0, an error, or END.
// Returns 0; NETIO_EBUSY (events wait to be taken), NETIO_EINVAL (after end); what next() said.
static inline int http_client_feed(http_client *c, const void *data, size_t len);
static inline void http_client_end(http_client *c);

// The next event, lent until the next call.
//
// Returns  1; 0: needs more; NETIO_ENOMEM, after which it can be called again; errors that stay:
//          NETIO_EPROTO (no status line, malformed fields, Content-Length and Transfer-Encoding
//          that contradict, malformed chunks, 101, bytes that nobody asked for), NETIO_EMSGSIZE
//          (over one of the limits: a body whose length is announced already at its head, and
//          nothing of that is handed out), NETIO_ETRUNCATED (the end came inside a head or body),
//          NETIO_EOF (it came before the head: a server may close an idle connection, so a
//          request that may be repeated can be, on a new one)
static inline int http_client_next(http_client *c, http_event *out);

// Whether the connection can carry another request: no response is under way, the last one allowed
// it, and nothing came behind it.
static inline bool http_client_reusable(const http_client *c);

// The last error in words, for a log: "Content-Length and Transfer-Encoding contradict"; "" if
// there was none. Static.
static inline const char *http_client_why(const http_client *c);

//################################################################################################
//
//                                        IMPLEMENTATION
//
//################################################################################################

//================================================================================================
// URLs
//================================================================================================

static inline char http__lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

static inline bool http__alnum(char c)
{
    return (c >= '0' && c <= '9') || (http__lower(c) >= 'a' && http__lower(c) <= 'z');
}

static inline bool http__hex(char c)
{
    return (c >= '0' && c <= '9') || (http__lower(c) >= 'a' && http__lower(c) <= 'f');
}

// Whether `text` begins with `word`, which is in lower case; case aside.
static inline bool http__begins(const char *text, size_t len, const char *word)
{
    size_t i = 0;
    while (i < len && word[i] && http__lower(text[i]) == word[i]) i++;
    return word[i] == 0;
}

// Bytes of "scheme:"; 0: there is none.
static inline size_t http__scheme(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && (http__alnum(text[i]) || strchr("+-.", text[i])) && text[i]) i++;
    return i > 0 && i < len && text[i] == ':' && http__lower(text[0]) >= 'a' ? i + 1 : 0;
}

// Square brackets belong elsewhere, but many a query has them and nothing is lost by that.
static inline bool http__url_text(const char *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] <= ' ' || p[i] >= 0x7F || strchr("\"<>\\^`{|}", p[i])) return false;
        if (p[i] == '%' && (len - i < 3 || !http__hex(p[i + 1]) || !http__hex(p[i + 2])))
            return false;
    }
    return true;
}

// Labels of a name. If the last one is a number, it must be an IPv4 address in full.
static inline bool http__host_ok(const char *host, size_t len)
{
    size_t label = 0;
    bool number = true;
    netio_addr ip;
    char text[24];
    for (size_t i = 0; i < len; i++) {
        char c = http__lower(host[i]);
        if (c == '.' && (i == label || i - label > 63)) return false;
        if (c == '.') label = i + 1, number = true;
        else if (!http__alnum(c) && c != '-' && c != '_') return false;
        else if (c < '0' || c > '9') number = false;
    }
    if (label == len || len - label > 63) return false;
    if (!number && !http__begins(host + label, len - label, "0x")) return true;
    int n = len < 16 ? snprintf(text, sizeof text, "%.*s:1", (int)len, host) : 0;
    return n > 0 && netio_addr_parse(&ip, text, (size_t)n) == 0;
}

static inline bool http__host6_ok(const char *host, size_t len) // with its brackets
{
    netio_addr ip;
    char text[64];
    int n = len < 50 ? snprintf(text, sizeof text, "%.*s:1", (int)len, host) : 0;
    return n > 0 && !memchr(host, '%', len) && netio_addr_parse(&ip, text, (size_t)n) == 0;
}

// "host", "host:port", "[v6]", "[v6]:port".
static inline int http__authority(http_url *u, const char *p, size_t len)
{
    size_t host = len;
    uint32_t port = 0;
    while (host > 0 && p[host - 1] >= '0' && p[host - 1] <= '9') host--;
    bool given = host > 0 && p[host - 1] == ':';
    for (size_t i = host; given && i < len && port <= 65535; i++)
        port = port * 10 + (uint32_t)(p[i] - '0');
    bool own = !given || host == len; // an empty port is the scheme's own (RFC 3986)
    host = given ? host - 1 : len;
    if (own) port = u->tls ? 443 : 80;
    if (port == 0 || port > 65535 || host == 0) return NETIO_EINVAL;
    if (host > 253) return NETIO_ENAMETOOLONG;
    bool v6 = p[0] == '[';
    if (!(v6 ? http__host6_ok : http__host_ok)(p, host)) return NETIO_EINVAL;
    size_t skip = v6 ? 1 : 0;
    for (size_t i = skip; i < host - skip; i++) u->host[i - skip] = http__lower(p[i]);
    u->host[host - 2 * skip] = 0;
    u->port = (uint16_t)port;
    snprintf(u->address, sizeof u->address, v6 ? "[%s]:%u" : "%s:%u", u->host, (unsigned)port);
    snprintf(u->authority, sizeof u->authority, "%s", u->address);
    if (port == (u->tls ? 443u : 80u)) *strrchr(u->authority, ':') = 0;
    return 0;
}

static inline int http_url_parse(http_url *out, const char *text, size_t len)
{
    http_url u;
    memset(&u, 0, sizeof u);
    size_t at = http__scheme(text, len), end;
    if (at == 0 || len - at < 2 || memcmp(text + at, "//", 2) != 0) return NETIO_EINVAL;
    u.tls = http__begins(text, len, "https:");
    if (!u.tls && !http__begins(text, len, "http:")) return NETIO_ENOTSUP;
    if (!http__url_text(text, len)) return NETIO_EINVAL;
    for (end = at += 2; end < len && !strchr("/?#", text[end]);) end++;
    int err = http__authority(&u, text + at, end - at);
    if (err < 0) return err;
    const char *hash = (const char *)memchr(text + end, '#', len - end);
    size_t size = (hash ? (size_t)(hash - text) : len) - end;
    bool bare = size == 0 || text[end] == '?'; // no path
    if (size + bare > HTTP_TARGET_MAX) return NETIO_ENAMETOOLONG;
    u.target[0] = '/';
    memcpy(u.target + bare, text + end, size);
    *out = u;
    return 0;
}

// RFC 3986 section 5.2.4, in place: a segment moves to where the last one that stays has ended.
static inline void http__remove_dots(char *target)
{
    size_t len = strcspn(target, "?"), n = 0, end;
    for (size_t at = 0; at < len; at = end) { // target[at] is a '/'
        const char *segment = target + at + 1;
        for (end = at + 1; end < len && target[end] != '/';) end++;
        size_t size = end - at - 1;
        bool one = size == 1 && segment[0] == '.';
        bool two = size == 2 && segment[0] == '.' && segment[1] == '.';
        if (!one && !two) {
            memmove(target + n, target + at, end - at);
            n += end - at;
            continue;
        }
        while (two && n > 0 && target[--n] != '/') continue;
        if (end == len) target[n++] = '/';
    }
    memmove(target + n, target + len, strlen(target + len) + 1);
}

static inline int http_url_resolve(http_url *out, const http_url *base, const char *location,
                                   size_t len)
{
    http_url u;
    char text[sizeof u.authority + sizeof u.target + HTTP_TARGET_MAX + 16];
    const char *scheme = base->tls ? "https:" : "http:";
    size_t path = strcspn(base->target, "?");
    char first = len > 0 && location[0] ? location[0] : '#';
    if (len > HTTP_TARGET_MAX) return NETIO_ENAMETOOLONG;
    if (!http__url_text(location, len)) return NETIO_EINVAL;
    bool whole = http__scheme(location, len) > 0, slashes = len > 1 && !memcmp(location, "//", 2);
    if (first == '#') path = strlen(base->target); // the same document
    else if (first == '/') path = 0;
    else if (first != '?') // beside the base: behind its last slash
        while (base->target[path - 1] != '/') path--;
    if (whole) path = (size_t)snprintf(text, sizeof text, "%.*s", (int)len, location);
    else if (slashes)
        path = (size_t)snprintf(text, sizeof text, "%s%.*s", scheme, (int)len, location);
    else
        path = (size_t)snprintf(text, sizeof text, "%s//%s%.*s%.*s", scheme, base->authority,
                                (int)path, base->target, (int)len, location);
    int err = http_url_parse(&u, text, path);
    if (err < 0) return err;
    http__remove_dots(u.target);
    *out = u;
    return 0;
}

//================================================================================================
// Requests
//================================================================================================

static inline int http_client_init(http_client *c, const http_client_opts *opts)
{
    memset(c, 0, sizeof *c);
    if (opts) c->opts = *opts;
    if (c->opts.head_max == 0) c->opts.head_max = 16 * 1024;
    if (c->opts.chunk_max == 0) c->opts.chunk_max = 16 * 1024 * 1024;
    if (c->opts.body_max == 0) c->opts.body_max = (uint64_t)1 << 30;
    c->keep = true;
    c->why = "";
    return netio_decoder_init(&c->d, netio_framing_http_head(c->opts.head_max), NULL, 0);
}

static inline void http_client_free(http_client *c) { netio_decoder_free(&c->d); }

static inline bool http_client_reusable(const http_client *c)
{
    netio_buf rest[2];
    return c->state == HTTP__IDLE && c->keep && netio_decoder_rest(&c->d, rest) == 0;
}

static inline bool http__is_token(const char *p) // RFC 9110 section 5.6.2
{
    size_t i = 0;
    while (p[i] && (http__alnum(p[i]) || strchr("!#$%&'*+-.^_`|~", p[i]))) i++;
    return i > 0 && p[i] == 0;
}

static inline ptrdiff_t http_client_request(http_client *c, char *buf, size_t cap,
                                            const char *method, const http_url *url,
                                            int64_t body_len)
{
    char more[64] = "";
    if (!http__is_token(method) || strcmp(method, "CONNECT") == 0) return NETIO_EINVAL;
    if (c->state != HTTP__IDLE && c->state != HTTP__FAILED) return NETIO_EBUSY;
    if (!http_client_reusable(c)) return NETIO_EPIPE;
    if (body_len == HTTP_BODY_CHUNKED)
        snprintf(more, sizeof more, "Transfer-Encoding: chunked\r\n");
    else if (body_len >= 0)
        snprintf(more, sizeof more, "Content-Length: %lld\r\n", (long long)body_len);
    else if (body_len != HTTP_BODY_NONE) return NETIO_EINVAL;
    int n = snprintf(buf, cap, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, url->target,
                     url->authority, more);
    if (n < 0 || (size_t)n >= cap) return NETIO_ENOSPC;
    int err = netio_decoder_set_framing(&c->d, netio_framing_http_head(c->opts.head_max));
    if (err < 0) return err;
    c->headless = strcmp(method, "HEAD") == 0;
    c->state = HTTP__HEADS;
    c->interim = 0;
    return n;
}

//================================================================================================
// Responses
//================================================================================================

static inline int http_client_feed(http_client *c, const void *data, size_t len)
{
    return c->state == HTTP__FAILED ? c->err : netio_decoder_feed(&c->d, data, len);
}

static inline void http_client_end(http_client *c) { netio_decoder_end(&c->d); }

static inline const char *http_client_why(const http_client *c) { return c->why; }

static inline int http__fail(http_client *c, int err, const char *why)
{
    c->state = HTTP__FAILED;
    c->err = err;
    c->why = why;
    return err;
}

// --- heads -------------------------------------------------------------------------------------

#define HTTP__NO_STATUS "not HTTP/1: no status line"

// What is wrong with a head that netio_http_parse did not take: its beginning is a head, too, so
// the first line without which it would be one is to blame.
static inline const char *http__head_why(const char *p, size_t len)
{
    netio_http_head head;
    for (size_t begin = 0, end; begin < len; begin = end) {
        const char *line = p + begin, *nl = (const char *)memchr(line, '\n', len - begin);
        end = nl ? (size_t)(nl - p) + 1 : len;
        if (netio_http_parse(&head, p, end) == 0) continue;
        if (begin == 0) break;
        return http__begins(line, end - begin, "content-length") ||
                       http__begins(line, end - begin, "transfer-encoding")
                   ? "Content-Length or Transfer-Encoding: malformed, twice, or both"
                   : "malformed field";
    }
    return HTTP__NO_STATUS;
}

// No head: needs more, or an error. Whoever does not begin with "HTTP/1." speaks something else,
// and may now wait for us, so that is said at the first byte that shows it.
static inline int http__no_head(http_client *c, int r)
{
    static const char begin[] = "HTTP/1.";
    netio_buf rest[2];
    size_t len = netio_decoder_rest(&c->d, rest) ? rest[0].len : 0;
    if (len > sizeof begin - 1) len = sizeof begin - 1;
    if (r == NETIO_ENOMEM) return r;
    if (len && *(const char *)rest[0].data != '\r' && memcmp(rest[0].data, begin, len) != 0)
        return http__fail(c, NETIO_EPROTO, HTTP__NO_STATUS);
    if (r == NETIO_EOF) return http__fail(c, r, "the end came instead of a response");
    if (r == NETIO_ETRUNCATED) return http__fail(c, r, "the end came inside the head");
    if (r == NETIO_EMSGSIZE) return http__fail(c, r, "head longer than allowed");
    return r < 0 ? http__fail(c, r, "malformed head: a control byte, or a line end") : 0;
}

// RFC 9112 section 6.3: how the body ends.
static inline int http__take_head(http_client *c, http_event *out)
{
    const netio_http_head *h = &c->head;
    bool none = c->headless || h->status == 204 || h->status == 304;
    bool sized = none || (!h->chunked && h->content_length >= 0);
    uint64_t size = none || !sized ? 0 : (uint64_t)h->content_length;
    if (size > c->opts.body_max) return http__fail(c, NETIO_EMSGSIZE, "body longer than allowed");
    c->state = sized ? HTTP__SIZED : h->chunked ? HTTP__CHUNKED : HTTP__TO_END;
    c->left = sized ? size : c->opts.body_max;
    c->keep = h->keep_alive && c->state != HTTP__TO_END;
    c->fresh = true;
    out->type = HTTP_EVENT_HEAD;
    out->head = h;
    return 1;
}

static inline int http__next_head(http_client *c, http_event *out)
{
    netio_frame f;
    for (;;) {
        int r = netio_decoder_next(&c->d, &f);
        if (r <= 0) return http__no_head(c, r);
        r = netio_http_parse(&c->head, f.data, f.len);
        if (r == NETIO_EMSGSIZE) return http__fail(c, r, "more fields than allowed");
        if (r < 0 || c->head.status == 0)
            return http__fail(c, NETIO_EPROTO, http__head_why((const char *)f.data, f.len));
        if (c->head.status >= 200) return http__take_head(c, out);
        if (c->head.status == 101)
            return http__fail(c, NETIO_EPROTO, "101: another protocol, which nobody asked for");
        if (++c->interim > HTTP_INTERIM_MAX)
            return http__fail(c, NETIO_EPROTO, "too many 1xx responses");
    }
}

// --- bodies ------------------------------------------------------------------------------------

static inline int http__body_end(http_client *c, http_event *out, const netio_frame *last)
{
    c->state = HTTP__IDLE;
    out->type = HTTP_EVENT_END;
    if (last) out->data = last->header;
    if (last) out->len = last->header_len;
    return 1;
}

static inline int http__piece(http_client *c, http_event *out, const netio_frame *f)
{
    if (f->len > c->left) return http__fail(c, NETIO_EMSGSIZE, "body longer than allowed");
    c->left -= f->len;
    out->type = HTTP_EVENT_BODY;
    out->data = f->data;
    out->len = f->len;
    return 1;
}

static inline int http__cut(http_client *c)
{
    return http__fail(c, NETIO_ETRUNCATED, "the end came inside the body");
}

// The bytes as they come, but none that belongs to something else.
static inline int http__next_raw(http_client *c, http_event *out)
{
    netio_framing raw;
    netio_frame f;
    bool sized = c->state == HTTP__SIZED;
    const size_t most = (size_t)1 << 30;
    if (sized && c->left == 0) return http__body_end(c, out, NULL);
    memset(&raw, 0, sizeof raw);
    raw.max = c->left < most ? (size_t)c->left : most;
    if (raw.max == 0) raw.max = 1; // over the limit: shows whether there is anything
    int r = netio_decoder_set_framing(&c->d, raw);
    if (r == 0) r = netio_decoder_next(&c->d, &f);
    if (r > 0) return http__piece(c, out, &f);
    if (r == NETIO_EOF) return sized ? http__cut(c) : http__body_end(c, out, NULL);
    return r;
}

static inline int http__next_chunk(http_client *c, http_event *out)
{
    netio_frame f;
    int r = 0;
    if (c->fresh) r = netio_decoder_set_framing(&c->d, netio_framing_chunked(c->opts.chunk_max));
    c->fresh = false;
    if (r == 0) r = netio_decoder_next(&c->d, &f);
    if (r > 0) return f.len ? http__piece(c, out, &f) : http__body_end(c, out, &f);
    if (r == 0 || r == NETIO_ENOMEM) return r;
    if (r == NETIO_EOF || r == NETIO_ETRUNCATED) return http__cut(c);
    if (r == NETIO_EMSGSIZE) return http__fail(c, r, "chunk or trailers longer than allowed");
    return http__fail(c, r, "malformed chunk");
}

static inline int http__next_idle(http_client *c)
{
    netio_buf rest[2];
    if (netio_decoder_rest(&c->d, rest) > 0)
        return http__fail(c, NETIO_EPROTO, "bytes that no request asked for");
    return 0;
}

static inline int http_client_next(http_client *c, http_event *out)
{
    memset(out, 0, sizeof *out);
    switch (c->state) {
    case HTTP__HEADS: return http__next_head(c, out);
    case HTTP__SIZED:
    case HTTP__TO_END: return http__next_raw(c, out);
    case HTTP__CHUNKED: return http__next_chunk(c, out);
    case HTTP__IDLE: return http__next_idle(c);
    default: return c->err;
    }
}
#endif // HTTP_CLIENT_H
