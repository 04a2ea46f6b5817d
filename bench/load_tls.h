// The client's side of TLS for load.c, in as few calls as it needs. With LOAD_TLS 0 the same calls
// without TLS behind them, so that a machine without OpenSSL's headers can run everything else.
#ifndef LOAD_TLS_H
#define LOAD_TLS_H

#include <stdbool.h>
#include <sys/types.h>

#ifndef LOAD_TLS
#define LOAD_TLS 1
#endif

#if LOAD_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>

typedef SSL tls;

static SSL_CTX *tls_ctx;
static SSL_SESSION *tls_session;

static bool tls_init(void)
{
    tls_ctx = SSL_CTX_new(TLS_client_method());
    if (!tls_ctx) return false;
    SSL_CTX_set_verify(tls_ctx, SSL_VERIFY_NONE, NULL); // the certificate was made for this run
    SSL_CTX_set_min_proto_version(tls_ctx, TLS1_3_VERSION);
    // All that are compared do the same work: left to themselves they differ in what they prefer.
    if (SSL_CTX_set_ciphersuites(tls_ctx, "TLS_AES_128_GCM_SHA256") != 1) return false;
    if (SSL_CTX_set1_groups_list(tls_ctx, "X25519") != 1) return false;
    SSL_CTX_set_session_cache_mode(tls_ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(tls_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(tls_ctx, 1);
    return true;
}

static tls *tls_new(int fd)
{
    SSL *t = SSL_new(tls_ctx);
    if (!t) return NULL;
    SSL_set_fd(t, fd);
    SSL_set_connect_state(t);
    if (tls_session) SSL_set_session(t, tls_session);
    return t;
}

// 1: done, 0: would block, -1: failed
static int tls_handshake(tls *t)
{
    int r = SSL_do_handshake(t);
    if (r == 1) return 1;
    if (SSL_get_error(t, r) == SSL_ERROR_WANT_READ) return 0;
    ERR_print_errors_fp(stderr);
    return -1;
}

// Bytes; 0: ended, -1: would block
static ssize_t tls_result(tls *t, int r)
{
    if (r > 0) return r;
    int e = SSL_get_error(t, r);
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? -1 : 0;
}

static ssize_t tls_read(tls *t, void *p, size_t n) { return tls_result(t, SSL_read(t, p, (int)n)); }

static ssize_t tls_write(tls *t, const void *p, size_t n)
{
    return tls_result(t, SSL_write(t, p, (int)n));
}

static bool tls_pending(tls *t) { return SSL_has_pending(t); }

static bool tls_resumed(tls *t) { return SSL_session_reused(t); }

// Every later connection resumes this one's session.
static bool tls_keep_session(tls *t)
{
    tls_session = SSL_get1_session(t);
    return tls_session && SSL_SESSION_is_resumable(tls_session);
}

static void tls_free(tls *t)
{
    // Without this OpenSSL marks the session as one that cannot be resumed.
    SSL_set_shutdown(t, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t);
}

#else
typedef struct tls tls;

static bool tls_init(void) { return false; }
static tls *tls_new(int fd) { return (void)fd, (tls *)0; }
static int tls_handshake(tls *t) { return (void)t, -1; }
static ssize_t tls_read(tls *t, void *p, size_t n) { return (void)t, (void)p, (void)n, 0; }
static ssize_t tls_write(tls *t, const void *p, size_t n) { return (void)t, (void)p, (void)n, 0; }
static bool tls_pending(tls *t) { return (void)t, false; }
static bool tls_resumed(tls *t) { return (void)t, false; }
static bool tls_keep_session(tls *t) { return (void)t, false; }
static void tls_free(tls *t) { (void)t; }
#endif

#endif // LOAD_TLS_H
