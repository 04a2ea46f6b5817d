// The bytes that a peer of TLS may send: to a client and a server, before and after the handshake,
// and as a certificate. Needs the folder of certs.sh in NETIO_TEST_CERTS.
//
//     clang -g -fsanitize=fuzzer,address,undefined -DNETIO_LIBFUZZER fuzz_tls.c -lssl -lcrypto
//     cc -g fuzz_tls.c -lssl -lcrypto -o fuzz_tls
//         fuzz_tls FILE...       replays the files
//         fuzz_tls               replays what a real handshake says, then mutations of it
//         fuzz_tls --seeds DIR   writes the seeds as files, to begin a corpus with
//
// The first byte picks what is tried; NETIO_FUZZ_KIND=0 to 5 in the environment picks it for all
// inputs. The implementation is inside, as the readers of certificates and names are reached from
// outside through handshakes only.
#define NETIO_STATIC
#define NETIO_IMPLEMENTATION
#ifndef NETIO_TLS_OPENSSL
#define NETIO_TLS_OPENSSL
#endif
#include "netio_tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLDS(cond) ((cond) ? (void)0 : broken(__LINE__, #cond))

static void broken(int line, const char *what)
{
    fprintf(stderr, "fuzz_tls.c:%d: does not hold: %s\n", line, what);
    abort();
}

enum { CLIENT_HELLO, SERVER_HELLO, CLIENT_DATA, SERVER_DATA, CERTIFICATE, NAME, KINDS };

static netio_tls_ctx *client_ctx, *server_ctx;
static int only = -1; // this kind

static bool prepare(void)
{
    static char path[600];
    const char *dir = getenv("NETIO_TEST_CERTS");
    netio_tls_config cfg = {0};
    const char *kind = getenv("NETIO_FUZZ_KIND");
    if (client_ctx) return true;
    if (!dir) return false;
    if (kind) only = atoi(kind) % KINDS;
    snprintf(path, sizeof path, "%s/ca.crt", dir);
    cfg.ca_file = path;
    cfg.no_tickets = true; // each input meets the same state
    HOLDS(netio_tls_ctx_create(&client_ctx, &cfg, NULL) == 0);
    snprintf(path, sizeof path, "%s/good.pem", dir);
    cfg.ca_file = NULL;
    cfg.cert_file = path;
    HOLDS(netio_tls_ctx_create(&server_ctx, &cfg, NULL) == 0);
    return true;
}

static void move(netio_tls *from, netio_tls *to)
{
    netio_buf out = netio_tls_out(from);
    HOLDS(netio_tls_feed(to, out.data, out.len) == 0);
    netio_tls_out_drop(from, out.len);
}

static void open_pair(netio_tls *t[2])
{
    HOLDS(netio_tls_client(&t[0], client_ctx, "example.test", NULL) == 0);
    HOLDS(netio_tls_server(&t[1], server_ctx) == 0);
}

static void handshake(netio_tls *t[2])
{
    for (int i = 0; i < 3; i++) {
        netio_tls_handshake(t[0]);
        move(t[0], t[1]);
        netio_tls_handshake(t[1]);
        move(t[1], t[0]);
    }
    HOLDS(netio_tls_handshake(t[0]) == 0 && netio_tls_handshake(t[1]) == 0);
}

// Nobody without the keys completes a handshake, delivers a byte or ends the stream.
static void feed_all(netio_tls *t, bool done, const uint8_t *data, size_t len)
{
    char buf[256];
    netio_tls_error e;
    netio_tls_info info;
    ptrdiff_t n = 0;
    size_t piece = len ? 1u + data[0] : 1; // the first byte also says how it is cut
    for (size_t at = 0; at < len; at += piece) {
        if (piece > len - at) piece = len - at;
        if (netio_tls_feed(t, data + at, piece) < 0) break;
        HOLDS(done || netio_tls_handshake(t) < 0);
        n = netio_tls_read(t, buf, sizeof buf);
        HOLDS(n < 0 && n != NETIO_EOF);
        HOLDS(netio_tls_out(t).len < 1 << 20);
    }
    netio_tls_feed_end(t);
    n = netio_tls_read(t, buf, sizeof buf);
    HOLDS(n < 0 && n != NETIO_EOF && n != NETIO_EAGAIN);
    HOLDS(netio_tls_get_error(t, &e) == 0 && e.code != 0 && memchr(e.text, 0, sizeof e.text));
    HOLDS(netio_tls_get_info(t, &info) == 0);
}

static void look_at(const uint8_t *data, size_t len)
{
    netio__x509 x;
    netio__tls_host host;
    char text[80];
    bool rsa;
    if (netio__tls_host_parse(&host, (const char *)data, len))
        HOLDS(host.name[0] && strlen(host.name) < sizeof host.name);
    if (!netio__x509_parse(&x, data, len)) return;
    netio__x509_key_bits(&x, &rsa);
    netio__x509_weak_signature(&x);
    netio__x509_serves(&x, false);
    netio__tls_date(text, x.not_before);
    netio__x509_title(text, sizeof text, &x, false);
    netio__x509_title(text, sizeof text, &x, true);
    HOLDS(netio__tls_host_parse(&host, "example.test", 12));
    netio__tls_name_match(x.names, &host);
    netio_tls_cert c;
    size_t need = netio__tls_cert_texts(&c, &x, text, 0, NULL);
    char *texts = (char *)malloc(need);
    const char **names = (const char **)malloc((c.name_count + 1) * sizeof *names);
    HOLDS(texts && names && netio__tls_cert_texts(&c, &x, texts, need, names) == need);
    HOLDS(texts[need - 1] == 0);
    for (size_t i = 0; i < c.name_count; i++) HOLDS(names[i] + strlen(names[i]) < texts + need);
    free(texts);
    free((void *)names);
}

// What may match by RFC 9525, said anew: the whole name, or all of it but its first label.
static bool may_match(const char *pattern, const char *host)
{
    const char *dot = strchr(host, '.');
    if (strcmp(pattern, host) == 0) return strchr(pattern, '*') == NULL;
    return pattern[0] == '*' && dot && dot > host && strcmp(pattern + 1, dot) == 0 &&
           strchr(dot + 1, '.') && !strchr(pattern + 1, '*');
}

// The first byte is the length of the host's name, then it, then a name of a certificate.
static void match(const uint8_t *data, size_t len)
{
    netio__tls_host host;
    netio__der pattern, names;
    char text[256];
    uint8_t der[256 + 3] = {0x82, 0x81};
    if (len == 0 || data[0] >= len || len - 1 - data[0] > 255) return;
    if (!netio__tls_host_parse(&host, (const char *)data + 1, data[0])) return;
    pattern.at = data + 1 + data[0];
    pattern.len = len - 1 - data[0];
    bool same = netio__tls_name_is(pattern, &host);
    for (size_t i = 0; i < pattern.len; i++) {
        char c = (char)pattern.at[i];
        text[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    text[pattern.len] = 0;
    HOLDS(same == (!host.ip_len && strlen(text) == pattern.len && may_match(text, host.name)));

    // The same inside of subjectAltName; and the bytes as if they were all of that.
    size_t head = pattern.len < 128 ? 2 : 3;
    der[head - 1] = (uint8_t)pattern.len;
    memcpy(der + head, pattern.at, pattern.len);
    names.at = der;
    names.len = head + pattern.len;
    HOLDS(netio__tls_name_match(names, &host) == same);
    netio__tls_name_match(pattern, &host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    netio_tls *t[2];
    if (size == 0 || !prepare()) return 0;
    uint8_t *exact = (uint8_t *)malloc(size > 1 ? size - 1 : 1); // one byte too far is seen
    HOLDS(exact);
    memcpy(exact, data + 1, size - 1);
    int kind = only >= 0 ? only : data[0] % KINDS;
    if (kind == CERTIFICATE) {
        look_at(exact, size - 1);
    } else if (kind == NAME) {
        match(exact, size - 1);
    } else {
        bool done = kind == CLIENT_DATA || kind == SERVER_DATA;
        open_pair(t);
        if (done) handshake(t);
        else netio_tls_handshake(t[0]); // its hello is on its way
        feed_all(t[kind % 2], done, exact, size - 1);
        netio_tls_destroy(t[0]);
        netio_tls_destroy(t[1]);
    }
    free(exact);
    return 0;
}

#ifndef NETIO_LIBFUZZER
enum { ROUNDS = 3000, ROOM = 4096, SEEDS = 9 };

static struct {
    uint8_t bytes[ROOM];
    size_t len;
} seeds[SEEDS];

static void add_seed(int at, uint8_t kind, const void *data, size_t len)
{
    HOLDS(len < ROOM);
    seeds[at].bytes[0] = kind;
    if (len) memcpy(seeds[at].bytes + 1, data, len);
    seeds[at].len = len + 1;
}

// What a client and a server say: hello, flight, the end of the handshake, data, close_notify.
static void make_seeds(void)
{
    static const char address[] = "\x09" // of what follows, then a name and an address
                                  "192.0.2.1"
                                  "\x82\x03"
                                  "a.b"
                                  "\x87\x04\xC0\x00\x02\x01";
    static uint8_t der[ROOM - 1];
    char path[600];
    netio_tls *t[2];
    netio_buf out;
    open_pair(t);
    netio_tls_handshake(t[0]);
    out = netio_tls_out(t[0]);
    add_seed(0, SERVER_HELLO, out.data, out.len);
    move(t[0], t[1]);
    netio_tls_handshake(t[1]);
    out = netio_tls_out(t[1]);
    add_seed(1, CLIENT_HELLO, out.data, out.len);
    handshake(t);
    netio_tls_write(t[0], "hello", 5);
    netio_tls_shutdown(t[0]);
    out = netio_tls_out(t[0]);
    add_seed(2, SERVER_DATA, out.data, out.len);
    netio_tls_write(t[1], "hello", 5);
    netio_tls_shutdown(t[1]);
    out = netio_tls_out(t[1]);
    add_seed(3, CLIENT_DATA, out.data, out.len);
    netio_tls_destroy(t[0]);
    netio_tls_destroy(t[1]);
    snprintf(path, sizeof path, "%s/good.der", getenv("NETIO_TEST_CERTS"));
    FILE *f = fopen(path, "rb");
    HOLDS(f);
    add_seed(4, CERTIFICATE, der, fread(der, 1, sizeof der, f));
    fclose(f);
    add_seed(5, CERTIFICATE, "www.example.test", 16);
    add_seed(6, SERVER_HELLO, "\x15\x03\x03\x00\x02\x02\x28", 7); // an alert
    add_seed(7, NAME, "\x10www.example.test*.EXAMPLE.test", 31);
    add_seed(8, NAME, address, sizeof address - 1);
}

static uint32_t next_random(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

static size_t mutate(uint8_t *out, uint32_t *state)
{
    uint32_t which = next_random(state) % SEEDS;
    size_t len = seeds[which].len;
    memcpy(out, seeds[which].bytes, len);
    for (uint32_t left = next_random(state) % 6 + 1; left && len > 1; left--) {
        size_t at = 1 + next_random(state) % (len - 1);
        switch (next_random(state) % 4) {
        case 0: out[at] = (uint8_t)next_random(state); break;
        case 1: out[at] ^= (uint8_t)(1u << next_random(state) % 8); break;
        case 2: len = at; break; // cut off
        default:                 // said again
            if (len + (len - at) <= ROOM) {
                memmove(out + len, out + at, len - at);
                len += len - at;
            }
        }
    }
    return len;
}

int main(int argc, char **argv)
{
    static uint8_t data[1 << 20];
    uint32_t state = 1;
    int rounds = getenv("NETIO_TEST_UNDER") ? ROUNDS / 20 : ROUNDS;
    if (!prepare()) return printf("skipped: no certificates in NETIO_TEST_CERTS\n"), 77;
    make_seeds();
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) {
        for (int i = 0; i < SEEDS; i++) {
            char path[600];
            snprintf(path, sizeof path, "%s/seed-%d", argv[2], i);
            FILE *f = fopen(path, "wb");
            if (!f || fwrite(seeds[i].bytes, 1, seeds[i].len, f) != seeds[i].len || fclose(f))
                return 1;
        }
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) return 1;
        LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, f));
        fclose(f);
    }
    for (int i = 0; i < SEEDS && argc == 1; i++)
        if (seeds[i].bytes[0] != CLIENT_DATA && seeds[i].bytes[0] != SERVER_DATA)
            LLVMFuzzerTestOneInput(seeds[i].bytes, seeds[i].len);
    for (int i = 0; i < rounds && argc == 1; i++)
        LLVMFuzzerTestOneInput(data, mutate(data, &state));
    netio_tls_ctx_unref(client_ctx);
    netio_tls_ctx_unref(server_ctx);
    printf("PASS %d\n", argc == 1 ? rounds : argc - 1);
    return 0;
}
#endif
