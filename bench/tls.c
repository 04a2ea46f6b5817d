// tls.c: what netio's TLS costs over the library it drives: handshakes, memory, a flood of hellos.
//
//     cc -O2 -I. bench/tls.c -o tls -lssl -lcrypto -lpthread && ./tls      a minute
//     ./tls --quick                    a tenth of it: shows that it works
//     ./tls transfer, ./tls trust FILE N    something to count system calls of: see tls.sh
//
// Handshakes are made in memory, engine to engine and SSL to SSL over memory BIOs, a few of each in
// turns, and CPU time counts: what disturbs one disturbs the other. Memory is counted where it is
// allocated, apart for netio and for OpenSSL. The flood is of hellos that were made beforehand: to
// send one costs next to nothing, to answer it a key exchange and a signature. How long an echo
// takes meanwhile is the CPU time of the server's turns from its sending to its answer. Ends with 1
// if a bar is missed, --quick never does. Linux, OpenSSL 3.
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *netio_alloc(size_t size);
static void *netio_realloc(void *p, size_t size);
static void counted_free(void *p);

#define NETIO_MALLOC(size) netio_alloc(size)
#define NETIO_REALLOC(ptr, size) netio_realloc(ptr, size)
#define NETIO_FREE(ptr) counted_free(ptr)
#define NETIO_IMPLEMENTATION
#define NETIO_TLS_OPENSSL
#include "netio_tls.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static bool quick, missed;

static void die(const char *what)
{
    fprintf(stderr, "tls: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(2);
}

static void must(int err, const char *what)
{
    if (err < 0) die(what);
}

// A bar that is an upper limit, or a lower one.
static void bar(const char *what, double value, double limit, bool at_most)
{
    bool good = at_most ? value <= limit : value >= limit;
    printf("%-62s %10.2f   %s %g%s\n", what, value, at_most ? "<=" : ">=", limit,
           good ? "" : "  NOT MET");
    fflush(stdout);
    if (!good) missed = true;
}

static double clock_us(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int less(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *xs, size_t count, double q)
{
    qsort(xs, count, sizeof *xs, less);
    return count ? xs[(size_t)((double)(count - 1) * q)] : 0;
}

// --- who has how many bytes ---------------------------------------------------------------------

enum { OURS, LIBRARY, OTHERS }; // netio's, OpenSSL's, and those of the clients

typedef struct block_head {
    size_t size;
    long whose;
} block_head;

static long long bytes[OTHERS + 1], calls[OTHERS + 1];
static bool serving; // else what is allocated is a client's. One thread, while it matters

static void *counted(size_t size, long whose)
{
    block_head *b = (block_head *)malloc(sizeof *b + size);
    if (!b) return NULL;
    b->size = size;
    b->whose = serving ? whose : (long)OTHERS;
    __atomic_fetch_add(&bytes[b->whose], (long long)size, __ATOMIC_RELAXED);
    __atomic_fetch_add(&calls[b->whose], 1, __ATOMIC_RELAXED);
    return b + 1;
}

static void counted_free(void *p)
{
    block_head *b = (block_head *)p - 1;
    if (!p) return;
    __atomic_fetch_sub(&bytes[b->whose], (long long)b->size, __ATOMIC_RELAXED);
    free(b);
}

static void *counted_realloc(void *p, size_t size, long whose)
{
    void *bigger = counted(size, whose);
    size_t had = p ? ((block_head *)p - 1)->size : 0;
    if (!bigger) return NULL;
    if (p) memcpy(bigger, p, had < size ? had : size);
    counted_free(p);
    return bigger;
}

static void *netio_alloc(size_t size) { return counted(size, OURS); }

static void *netio_realloc(void *p, size_t size) { return counted_realloc(p, size, OURS); }

static void *library_alloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return counted(size, LIBRARY);
}

static void *library_realloc(void *p, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return counted_realloc(p, size, LIBRARY);
}

static void library_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    counted_free(p);
}

// --- contexts of both kinds, with one certificate -----------------------------------------------

static X509 *cert;
static EVP_PKEY *key;
static char cert_pem[2048], key_pem[1024];
static netio_tls_ctx *client_ctx, *server_ctx;
static SSL_CTX *bare_client, *bare_server;
static SSL_SESSION *bare_session; // the newest

static void pem_text(char *out, size_t cap, BIO *b)
{
    char *p;
    long n = BIO_get_mem_data(b, &p);
    if (n <= 0 || (size_t)n >= cap) die("PEM");
    memcpy(out, p, (size_t)n);
    out[n] = 0;
    BIO_free(b);
}

static void make_certificate(void)
{
    BIO *a = BIO_new(BIO_s_mem()), *b = BIO_new(BIO_s_mem());
    X509_EXTENSION *names =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:*.bench.test");
    cert = X509_new();
    key = EVP_EC_gen("P-256");
    if (!a || !b || !names || !cert || !key) die("certificate");
    X509_NAME *who = X509_get_subject_name(cert);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_NAME_add_entry_by_txt(who, "CN", MBSTRING_ASC, (const unsigned char *)"bench", -1, -1, 0);
    X509_set_issuer_name(cert, who);
    X509_set_pubkey(cert, key);
    X509_add_ext(cert, names, -1);
    if (!X509_sign(cert, key, EVP_sha256()) || !PEM_write_bio_X509(a, cert) ||
        !PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL))
        die("certificate");
    X509_EXTENSION_free(names);
    pem_text(cert_pem, sizeof cert_pem, a);
    pem_text(key_pem, sizeof key_pem, b);
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(bare_session);
    bare_session = session;
    return 1;
}

// TLS 1.3, and the same suite and groups as netio; stateless tickets, buffers released.
static SSL_CTX *bare_ctx(bool server)
{
    SSL_CTX *c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (!c || !SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256") || !netio__ossl_groups(c))
        die("context");
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    if (server && (!SSL_CTX_use_certificate(c, cert) || !SSL_CTX_use_PrivateKey(c, key)))
        die("context");
    if (server) return c;
    X509_STORE_add_cert(SSL_CTX_get_cert_store(c), cert);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c, keep_session);
    return c;
}

static void make_contexts(void)
{
    netio_tls_config client = {0}, server = {0};
    netio_tls_error why;
    make_certificate();
    client.ca = cert_pem;
    server.cert = cert_pem;
    server.key = key_pem;
    if (netio_tls_ctx_create(&client_ctx, &client, &why) < 0 ||
        netio_tls_ctx_create(&server_ctx, &server, &why) < 0)
        die(why.text);
    bare_client = bare_ctx(false);
    bare_server = bare_ctx(true);
}

// --- handshakes in memory -----------------------------------------------------------------------

static bool engine_move(netio_tls *from, netio_tls *to)
{
    netio_buf out = netio_tls_out(from);
    if (!out.len) return false;
    must(netio_tls_feed(to, out.data, out.len), "feed");
    netio_tls_out_drop(from, out.len);
    return true;
}

// One handshake, up to the tickets that the client gets with it.
static void engine_handshake(const char *name, bool resumed)
{
    netio_tls *c, *s;
    netio_tls_info info;
    char drop[64];
    must(netio_tls_client(&c, client_ctx, name, NULL), "client");
    must(netio_tls_server(&s, server_ctx), "server");
    int done_c, done_s;
    do {
        done_c = netio_tls_handshake(c);
        engine_move(c, s);
        done_s = netio_tls_handshake(s);
    } while (engine_move(s, c) || done_c < 0);
    if (done_s < 0 || netio_tls_read(c, drop, sizeof drop) != NETIO_EAGAIN) die("handshake");
    if (resumed && (netio_tls_get_info(s, &info) < 0 || !info.resumed)) die("not resumed");
    netio_tls_destroy(c);
    netio_tls_destroy(s);
}

static bool bare_move(BIO *from, BIO *to)
{
    char *p;
    long n = BIO_get_mem_data(from, &p);
    if (n <= 0) return false;
    if (BIO_write(to, p, (int)n) != (int)n) die("BIO_write");
    (void)BIO_reset(from);
    return true;
}

static SSL *bare_new(SSL_CTX *ctx, const char *name, BIO *in[1], BIO *out[1])
{
    SSL *ssl = SSL_new(ctx);
    if (!ssl) die("SSL_new");
    if (in) {
        *in = BIO_new(BIO_s_mem());
        *out = BIO_new(BIO_s_mem());
        BIO_set_mem_eof_return(*in, -1);
        SSL_set_bio(ssl, *in, *out);
    }
    if (name) {
        SSL_set_connect_state(ssl);
        SSL_set1_host(ssl, name);
        SSL_set_tlsext_host_name(ssl, name);
    } else {
        SSL_set_accept_state(ssl);
    }
    return ssl;
}

static void bare_free(SSL *ssl)
{
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); // keeps its session good
    SSL_free(ssl);
}

static void bare_handshake(const char *name, bool resumed)
{
    BIO *ci, *co, *si, *so;
    SSL *c = bare_new(bare_client, name, &ci, &co), *s = bare_new(bare_server, NULL, &si, &so);
    char drop[64];
    if (resumed) SSL_set_session(c, bare_session);
    int done_c, done_s;
    do {
        done_c = SSL_do_handshake(c);
        bare_move(co, si);
        done_s = SSL_do_handshake(s);
    } while (bare_move(so, ci) || done_c != 1);
    if (done_s != 1 || SSL_read(c, drop, sizeof drop) > 0) die("handshake");
    if (resumed && !SSL_session_reused(s)) die("not resumed");
    bare_free(c);
    bare_free(s);
}

static double handshakes(void (*one)(const char *name, bool resumed), bool resumed)
{
    static unsigned number;
    char name[32] = "resumed.bench.test";
    double begin = clock_us(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < 10; i++) {
        if (!resumed) snprintf(name, sizeof name, "h%u.bench.test", number++); // never seen before
        one(name, resumed);
    }
    return (clock_us(CLOCK_THREAD_CPUTIME_ID) - begin) / 10;
}

static void part_handshakes(bool resumed)
{
    enum { ROUNDS = 150 };

    double ratio[ROUNDS], ours[ROUNDS];
    char what[100];
    size_t rounds = quick ? ROUNDS / 10 : ROUNDS;
    engine_handshake("resumed.bench.test", false);
    bare_handshake("resumed.bench.test", false);
    for (size_t i = 0; i < rounds; i++) {
        double bare = 0;
        for (int k = 0; k < 2; k++) { // in either order
            if (k == (int)(i % 2)) ours[i] = handshakes(engine_handshake, resumed);
            else bare = handshakes(bare_handshake, resumed);
        }
        ratio[i] = bare / ours[i];
    }
    double us = quantile(ours, rounds, 0.5);
    snprintf(what, sizeof what, "%s handshakes (%.0f us, both ends), speed of the bare library's",
             resumed ? "resumed" : "full", us);
    bar(what, quantile(ratio, rounds, 0.5), 0.95, false);
}

// --- memory of connections ----------------------------------------------------------------------

static void echo_data(netio_conn c, const void *data, size_t len)
{
    netio_conn_write(c, data, len);
}

static const netio_handler echo = {.on_data = echo_data};

static netio_loop *echo_server(struct sockaddr_in *at, netio_tls_ctx *ctx)
{
    netio_listener_opts opts = {0};
    netio_loop *loop;
    netio_listener l;
    netio_addr addr;
    if (ctx) opts.conn.filter = netio_tls_filter(ctx);
    must(netio_loop_create(&loop, NULL), "loop");
    must(netio_listener_open(&l, loop, "127.0.0.1:0", &echo, &opts), "listen");
    must(netio_listener_addr(l, &addr), "address");
    memset(at, 0, sizeof *at);
    at->sin_family = AF_INET;
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at->sin_port = htons((uint16_t)netio_addr_port(&addr));
    return loop;
}

static int dial(const struct sockaddr_in *at)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)at, sizeof *at) < 0) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void serve(netio_loop *loop)
{
    serving = true;
    for (int i = 0; i < 3; i++) must(netio_loop_run_once(loop, 0), "run");
    serving = false;
}

// A client that sends and gets back 64 KiB.
static void client_echo(SSL *ssl, int fd, netio_loop *loop)
{
    static char sent[16384], got[16384];
    for (size_t i = 0, have; i < 4; i++) {
        memset(sent, 'a' + (int)i, sizeof sent);
        ssize_t n = ssl ? SSL_write(ssl, sent, sizeof sent) : send(fd, sent, sizeof sent, 0);
        if (n != (ssize_t)sizeof sent) die("write");
        for (have = 0; have<sizeof sent; have += n> 0 ? (size_t)n : 0) {
            serve(loop);
            n = ssl ? SSL_read(ssl, got + have, (int)(sizeof got - have))
                    : recv(fd, got + have, sizeof got - have, MSG_DONTWAIT);
        }
        if (memcmp(sent, got, sizeof got) != 0) die("the echo differs");
    }
}

static SSL *client_open(int fd, netio_loop *loop)
{
    SSL *ssl = bare_new(bare_client, "idle.bench.test", NULL, NULL);
    SSL_set_fd(ssl, fd);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    for (int i = 0; SSL_do_handshake(ssl) != 1; i++) {
        if (i > 1000) die("handshake");
        serve(loop);
    }
    return ssl;
}

static void idle(netio_tls_ctx *ctx, const char *what, double out[2])
{
    enum { CONNS = 200 };

    SSL *ssl[CONNS] = {0};
    int fd[CONNS];
    struct sockaddr_in at;
    long long before[2] = {0, 0}, open[2] = {0, 0};
    serving = true;
    netio_loop *loop = echo_server(&at, ctx);
    serving = false;
    for (int i = -20; i < CONNS; i++) { // the first ones fill pools and tables
        int at_fd = dial(&at);
        SSL *s = ctx ? client_open(at_fd, loop) : NULL;
        client_echo(s, at_fd, loop);
        if (i >= 0) ssl[i] = s, fd[i] = at_fd;
        if (i == -1) memcpy(before, bytes, sizeof before);
    }
    serve(loop);
    memcpy(open, bytes, sizeof open);
    long long warm = calls[OURS];
    for (int i = 0; i < CONNS; i++) client_echo(ssl[i], fd[i], loop);
    serve(loop);
    for (int k = 0; k < 2; k++) out[k] = (double)(bytes[k] - before[k]) / CONNS;
    printf("%-62s %10.0f   and %.0f of OpenSSL\n", what, out[OURS], out[LIBRARY]);
    printf("%-62s %10.0f   and %.0f of OpenSSL\n", "  more after each has echoed 64 KiB again",
           (double)(bytes[OURS] - open[OURS]) / CONNS, (double)(bytes[1] - open[1]) / CONNS);
    printf("%-62s %10.3f\n", "  allocations of netio for each message of 16 KiB",
           (double)(calls[OURS] - warm) / (4 * CONNS));
    for (int i = 0; i < CONNS; i++) {
        SSL_free(ssl[i]);
        close(fd[i]);
    }
    serve(loop);
    netio_loop_destroy(loop);
}

static void part_memory(void)
{
    double plain[2], tls[2];
    idle(NULL, "bytes of netio for a plain connection that is idle", plain);
    idle(server_ctx, "bytes of netio for a TLS connection that is idle", tls);
    bar("bytes of netio that TLS adds to a connection", tls[OURS] - plain[OURS], 512, true);
    bar("bytes of OpenSSL for one", tls[LIBRARY], 15 * 1024, true);
}

// --- a flood of hellos --------------------------------------------------------------------------

enum { ESTABLISHED = 50, SIZE = 1024, FLOOD_MAX = 2000, SAMPLES = 20000 };

typedef struct peer {
    int fd;
    SSL *ssl; // NULL: of the flood
    double sent_us;
} peer;

static peer peers[ESTABLISHED + FLOOD_MAX];
static char hello[2048];
static size_t hello_len;
static struct sockaddr_in server_at;
static double server_us, waits[SAMPLES]; // CPU time of the server alone
static size_t waited, answered;

static void make_hello(void)
{
    BIO *in, *out;
    SSL *c = bare_new(bare_client, "flood.bench.test", &in, &out);
    SSL_do_handshake(c);
    hello_len = (size_t)BIO_read(out, hello, sizeof hello);
    SSL_free(c);
}

static void watch(int ep, peer *p)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = p};
    fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) | O_NONBLOCK);
    if (epoll_ctl(ep, EPOLL_CTL_ADD, p->fd, &e) < 0) die("epoll_ctl");
}

static void flood_open(peer *p, int ep)
{
    struct linger reset = {1, 0};
    p->fd = dial(&server_at);
    setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (send(p->fd, hello, hello_len, 0) != (ssize_t)hello_len) die("hello");
    watch(ep, p);
}

static void message_send(peer *p)
{
    static char message[SIZE];
    p->sent_us = server_us;
    if (SSL_write(p->ssl, message, SIZE) != SIZE) die("write");
}

static void on_readable(peer *p, int ep)
{
    char got[SIZE];
    if (!p->ssl) { // the server's flight: its work is done
        answered++;
        close(p->fd);
        flood_open(p, ep);
        return;
    }
    if (SSL_read(p->ssl, got, SIZE) != SIZE) return;
    if (waited < SAMPLES) waits[waited++] = server_us - p->sent_us;
    message_send(p);
}

// Turns of the server's, until there are so many answers. The clients take no time: after each turn
// they have read what there is and sent what comes next.
static double flood_p99(netio_loop *loop, int ep, size_t samples, double *per_s)
{
    struct epoll_event ev[128];
    double begin = server_us;
    waited = answered = 0;
    while (waited < samples) {
        double from = clock_us(CLOCK_THREAD_CPUTIME_ID);
        must(netio_loop_run_once(loop, 0), "run");
        server_us += clock_us(CLOCK_THREAD_CPUTIME_ID) - from;
        int n = epoll_wait(ep, ev, 128, 0);
        for (int i = 0; i < n; i++) on_readable((peer *)ev[i].data.ptr, ep);
    }
    *per_s = (double)answered / (server_us - begin) * 1e6;
    return quantile(waits, waited, 0.99);
}

static void flooded(netio_loop *loop, int ep, size_t count)
{
    enum { ROUNDS = 20 };

    double calm[ROUNDS], full[ROUNDS], ratio[ROUNDS], per_s[ROUNDS], none;
    size_t rounds = quick ? 2 : ROUNDS, samples = quick ? 500 : 4000;
    char what[100];
    for (size_t i = 0; i < rounds; i++) {
        calm[i] = flood_p99(loop, ep, samples, &none);
        for (size_t k = 0; k < count; k++) {
            flood_open(&peers[ESTABLISHED + k], ep);
            if (k % 50 == 49)
                must(netio_loop_run_once(loop, 0), "run"); // the backlog is not endless
        }
        flood_p99(loop, ep, 20 * ESTABLISHED, &none);
        full[i] = flood_p99(loop, ep, samples, &per_s[i]);
        for (size_t k = 0; k < count; k++) close(peers[ESTABLISHED + k].fd);
        flood_p99(loop, ep, 20 * ESTABLISHED, &none);
        ratio[i] = full[i] / calm[i];
    }
    printf("%zu hellos at a time: %.0f answered a second; an echo's p99 %.0f us, %.0f without\n",
           count, quantile(per_s, rounds, 0.5), quantile(full, rounds, 0.5),
           quantile(calm, rounds, 0.5));
    snprintf(what, sizeof what, "p99 of %d echoing connections under a flood of %zu, to without it",
             ESTABLISHED, count);
    bar(what, quantile(ratio, rounds, 0.5), 2, true);
}

static void part_flood(void)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    netio_loop *loop = echo_server(&server_at, server_ctx);
    make_hello();
    for (int i = 0; i < ESTABLISHED; i++) {
        peers[i].fd = dial(&server_at);
        peers[i].ssl = client_open(peers[i].fd, loop);
        watch(ep, &peers[i]);
        message_send(&peers[i]);
    }
    flooded(loop, ep, 50);
    flooded(loop, ep, quick ? 100 : FLOOD_MAX);
    netio_loop_destroy(loop);
}

// --- what system calls are counted of -----------------------------------------------------------

enum { MEGABYTES = 200, PIECE = 16384 };

static void pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void *serve_thread(void *loop)
{
    pin(0);
    must(netio_loop_run((netio_loop *)loop), "run");
    return NULL;
}

static char block[PIECE];
static uint64_t received;
static netio_loop *receiver;

static void source_more(netio_conn c)
{
    while (!netio_conn_congested(c) && netio_conn_write(c, block, PIECE) == 0) {}
}

static void sink_data(netio_conn c, const void *data, size_t len)
{
    (void)c, (void)data;
    received += len;
    if (received >= MEGABYTES * 1000000u) netio_loop_stop(receiver);
}

static void sink_close(netio_conn c, int err)
{
    (void)c;
    if (err < 0 && err != NETIO_ECANCELED) die(netio_strerror(err));
}

static const netio_handler source = {.on_open = source_more, .on_drain = source_more};
static const netio_handler sink = {.on_data = sink_data, .on_close = sink_close};

// 200 MB from the loop of one thread to that of another.
static void transfer(void)
{
    netio_listener_opts opts = {0};
    netio_dial_opts dialing = {0};
    netio_loop *sender;
    netio_listener l;
    netio_addr addr;
    char text[NETIO_ADDR_TEXT];
    pthread_t thread;
    opts.conn.filter = netio_tls_filter(server_ctx);
    opts.conn.high_mark = 512 * 1024; // as a program sets it that sends in bulk
    dialing.conn.filter = netio_tls_filter(client_ctx);
    dialing.server_name = "bulk.bench.test";
    must(netio_loop_create(&sender, NULL), "loop");
    must(netio_loop_create(&receiver, NULL), "loop");
    must(netio_listener_open(&l, sender, "127.0.0.1:0", &source, &opts), "listen");
    must(netio_listener_addr(l, &addr), "address");
    netio_addr_format(&addr, text, sizeof text);
    must(netio_conn_dial(NULL, receiver, text, &sink, &dialing), "dial");
    if (pthread_create(&thread, NULL, serve_thread, sender)) die("thread");
    double begin = clock_us(CLOCK_MONOTONIC), cpu = clock_us(CLOCK_PROCESS_CPUTIME_ID);
    pin(1);
    must(netio_loop_run(receiver), "run");
    begin = clock_us(CLOCK_MONOTONIC) - begin;
    cpu = clock_us(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    netio_loop_stop(sender);
    pthread_join(thread, NULL);
    netio_loop_destroy(sender);
    netio_loop_destroy(receiver);
    printf("%d MB in %.0f ms, %.0f ms of CPU time, both ends\n", MEGABYTES, begin / 1e3, cpu / 1e3);
}

// So many connections that are verified against the system's roots, which are those of `file` here.
static void trust(const char *file, int count)
{
    netio_tls_config cfg = {0};
    netio_tls_error why;
    FILE *f = fopen(file, "w");
    if (!f || fputs(cert_pem, f) < 0 || fclose(f)) die(file);
    setenv("SSL_CERT_FILE", file, 1);
    netio_tls_ctx_unref(client_ctx);
    if (netio_tls_ctx_create(&client_ctx, &cfg, &why) < 0) die(why.text);
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "t%d.bench.test", i);
        engine_handshake(name, false);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    quick = strcmp(what, "--quick") == 0;
    if (!CRYPTO_set_mem_functions(library_alloc, library_realloc, library_free)) die("OpenSSL");
    make_contexts();
    if (strcmp(what, "transfer") == 0) {
        transfer();
    } else if (strcmp(what, "trust") == 0 && argc > 3) {
        trust(argv[2], atoi(argv[3]));
    } else {
        printf("%s\n\n", netio_tls_backend(0));
        part_handshakes(false);
        part_handshakes(true);
        part_memory();
        part_flood();
    }
    return missed && !quick;
}
