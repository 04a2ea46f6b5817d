// Fetches a URL, curl's job: looks the name up, races its addresses, verifies the server, writes
// the body to stdout. Several URLs are mirrors of one thing: if the first fails the next is asked.
//
//     https_get [-v] [-o FILE] [--cacert FILE] [--timeout SECONDS] [--max BYTES] URL [URL...]
//
//     -o         write to FILE; each URL that answers begins it anew. On stdout there is no other
//                try once a part of a body is out
//     --cacert   trust the CAs in FILE (PEM) and no others; default: what the system trusts
//     --timeout  for each URL, all in all; default: 30
//     --max      most bytes of the body; default: 1 GiB
//     -v         tell on stderr what was negotiated and answered
//
// Only 2xx is success. Redirects are followed, at most 5, never from https to http. Each failure is
// one line on stderr. Exit code 0; else that of the last URL: 1 not reached, or cut off; 2 the
// command line makes no sense; 3 TLS, such as a bad certificate; 4 another status; 5 malformed, or
// over a limit; 6 the output cannot be written.
//
// Build  cc -DNETIO_TLS_OPENSSL https_get.c -o https_get -lssl -lcrypto
//        cc https_get.c -o https_get          for http alone        (Windows: add -lws2_32)
// Try    ./https_get -v https://example.com/
#if !defined(NETIO_TLS_OPENSSL) && !defined(NETIO_TLS_NONE)
#define NETIO_TLS_NONE
#endif
#define NETIO_IMPLEMENTATION
#include "../../netio_tls.h"
#include "../common/http_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
static void bytes_as_they_are(void) { _setmode(_fileno(stdout), _O_BINARY); }
#else
static void bytes_as_they_are(void) {}
#endif

enum { REDIRECTS_MAX = 5 };
enum { DONE, UNREACHED, BAD_USE, BAD_TLS, BAD_STATUS, MALFORMED, NO_OUTPUT, REDIRECTED };

static struct {
    const char *file, *cacert;
    double timeout;
    bool verbose;
    http_client_opts limits;
} opt = {.timeout = 30};

static netio_tls_ctx *tls; // made when it is first needed
static FILE *output;       // open since the first head that was right
static bool begun;         // bytes of a body were written

static int fail(int code, const http_url *u, const char *why)
{
    fprintf(stderr, "https_get: %s://%s: %s\n", u->tls ? "https" : "http", u->authority, why);
    return code;
}

// What a call on the stream failed with: the network, time, or TLS.
static int lost(netio_stream *st, const http_url *u, ptrdiff_t err)
{
    netio_tls *t = netio_tls_stream_engine(st);
    netio_tls_error why;
    if (t && netio_tls_get_error(t, &why) == 0)
        return fail(err == NETIO_ETLS ? BAD_TLS : UNREACHED, u, why.text);
    if (err == NETIO_EAGAIN) err = NETIO_ETIMEDOUT; // it began when time was over
    return fail(UNREACHED, u, netio_strerror(err));
}

// The verdict, and how many addresses it is about.
static int unreached(const http_url *u, const netio_error errors[1 + NETIO_RESOLVE_MAX])
{
    char text[200];
    int tried = 0;
    while (tried < NETIO_RESOLVE_MAX && errors[1 + tried].err) tried++;
    snprintf(text, sizeof text, tried > 1 ? "%s (%d addresses tried)" : "%s", errors[0].text,
             tried);
    return fail(UNREACHED, u, text);
}

// The host is verified to be the URL's; to any other no byte of a request goes.
static int dial_tls(netio_stream *out, const http_url *u, const netio_socket_opts *socket,
                    int64_t by)
{
    static const char *const protocols[] = {"http/1.1"};
    netio_tls_config config = {.ca_file = opt.cacert, .alpn = protocols, .alpn_count = 1};
    netio_tls_client_opts opts = {.socket = *socket};
    netio_tls_error why;
    netio_tls_info info;
    if (!tls && netio_tls_ctx_create(&tls, &config, &why) < 0) return fail(BAD_TLS, u, why.text);
    int err = netio_tls_connect(out, u->address, tls, &why, &opts, netio_deadline_left(by));
    if (err < 0 && socket->errors[0].err) return unreached(u, socket->errors);
    if (err < 0) return fail(why.code ? BAD_TLS : UNREACHED, u, why.text);
    if (opt.verbose && netio_tls_get_info(netio_tls_stream_engine(out), &info) == 0)
        fprintf(stderr, "%s: %s, %s, %s\n", u->address, info.version_text, info.cipher,
                *info.alpn ? info.alpn : "no ALPN");
    return DONE;
}

static int dial(netio_stream *out, const http_url *u, int64_t by)
{
    netio_error errors[1 + NETIO_RESOLVE_MAX] = {{0}}; // the verdict, then one for each attempt
    netio_socket_opts opts = {.errors = errors, .error_cap = 1 + NETIO_RESOLVE_MAX};
    netio_socket s;
    if (u->tls) return dial_tls(out, u, &opts, by);
    if (netio_connect(&s, u->address, &opts, netio_deadline_left(by)) < 0)
        return unreached(u, errors);
    *out = netio_stream_from_socket(s);
    return DONE;
}

static int on_head(const netio_http_head *head, http_url *u)
{
    netio_buf location = netio_http_field(head, "Location");
    bool encrypted = u->tls;
    char text[40];
    snprintf(text, sizeof text, "HTTP status %d", head->status);
    if (opt.verbose) fprintf(stderr, "%s: %s\n", u->address, text);
    if (head->status / 100 == 3 && head->status != 304 && location.data) {
        if (http_url_resolve(u, u, location.data, location.len) < 0)
            return fail(MALFORMED, u, "a redirect to what is no URL");
        return encrypted && !u->tls ? fail(BAD_STATUS, u, "a redirect from https") : REDIRECTED;
    }
    if (head->status / 100 != 2) return fail(BAD_STATUS, u, text);
    if (output && opt.file) fclose(output);
    output = opt.file ? fopen(opt.file, "wb") : stdout;
    return output ? DONE : fail(NO_OUTPUT, u, "the output cannot be opened");
}

// The next event, with as much as must be received for it.
static int await(http_event *out, http_client *http, netio_stream *st, const http_url *u,
                 int64_t by)
{
    static char buf[65536];
    int r;
    while ((r = http_client_next(http, out)) == 0) {
        ptrdiff_t n = netio_stream_recv(st, buf, sizeof buf, netio_deadline_left(by));
        if (n == NETIO_EOF) http_client_end(http);
        else if (n < 0) return lost(st, u, n);
        else http_client_feed(http, buf, (size_t)n);
    }
    if (r > 0) return DONE;
    if (r == NETIO_ENOMEM) return fail(MALFORMED, u, netio_strerror(r));
    bool cut = r == NETIO_EOF || r == NETIO_ETRUNCATED;
    return fail(cut ? UNREACHED : MALFORMED, u, http_client_why(http));
}

static int receive(http_client *http, netio_stream *st, http_url *u, int64_t by)
{
    http_event e = {0};
    int code = DONE;
    while (code == DONE && e.type != HTTP_EVENT_END) {
        code = await(&e, http, st, u, by);
        if (code != DONE) break;
        if (e.type == HTTP_EVENT_HEAD) code = on_head(e.head, u);
        if (e.type != HTTP_EVENT_BODY) continue;
        begun = true;
        if (fwrite(e.data, 1, e.len, output) != e.len)
            code = fail(NO_OUTPUT, u, "the output cannot be written");
    }
    return code;
}

// One request on a connection of its own. REDIRECTED: `*u` is where to go.
static int ask(http_url *u, int64_t by)
{
    char buf[HTTP_TARGET_MAX + 512];
    netio_stream st;
    http_client http;
    int code = dial(&st, u, by);
    if (code != DONE) return code;
    http_client_init(&http, &opt.limits);
    ptrdiff_t n = http_client_request(&http, buf, sizeof buf, "GET", u, HTTP_BODY_NONE);
    if (n > 0) n = netio_http_add(buf, sizeof buf, (size_t)n, "User-Agent", "https_get");
    if (n > 0) n = netio_http_add(buf, sizeof buf, (size_t)n, "Connection", "close");
    if (n > 0) n = netio_stream_send_all(&st, buf, (size_t)n, NULL, netio_deadline_left(by));
    code = n < 0 ? lost(&st, u, n) : receive(&http, &st, u, by);
    http_client_free(&http);
    netio_stream_close(&st);
    return code;
}

static int fetch(const char *text)
{
    int64_t by = netio_deadline((int)(opt.timeout * 1000));
    http_url u;
    if (http_url_parse(&u, text, strlen(text)) < 0) {
        fprintf(stderr, "https_get: %s: no http:// or https:// URL\n", text);
        return BAD_USE;
    }
    for (int i = 0; i <= REDIRECTS_MAX; i++) {
        int code = ask(&u, by);
        if (code != REDIRECTED) return code;
    }
    return fail(BAD_STATUS, &u, "too many redirects");
}

static bool set_option(const char *name, const char *value)
{
    char *end = "";
    if (strcmp(name, "-o") == 0) opt.file = value;
    else if (strcmp(name, "--cacert") == 0) opt.cacert = value;
    else if (strcmp(name, "--timeout") == 0) opt.timeout = strtod(value, &end);
    else if (strcmp(name, "--max") == 0) opt.limits.body_max = strtoull(value, &end, 10);
    else return false;
    return *value && *value != '-' && *end == 0 && opt.timeout > 0 && opt.timeout < 1e6;
}

int main(int argc, char **argv)
{
    int at = 1, code = BAD_USE;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "-v") == 0) opt.verbose = true;
        else if (at + 1 < argc && set_option(argv[at], argv[at + 1])) at++;
        else at = argc;
    }
    if (at >= argc) {
        fprintf(stderr, "usage: https_get [-v] [-o FILE] [--cacert FILE] [--timeout SECONDS] "
                        "[--max BYTES] URL [URL...]\n");
        return code;
    }
    bytes_as_they_are();
    for (; at < argc && code != DONE && code != NO_OUTPUT && (opt.file || !begun); at++)
        code = fetch(argv[at]);
    if (output && fclose(output) != 0 && code == DONE) {
        fprintf(stderr, "https_get: the output cannot be written\n");
        code = NO_OUTPUT;
    }
    netio_tls_ctx_unref(tls);
    return code;
}
