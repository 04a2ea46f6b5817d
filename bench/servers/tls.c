// tls.c: OpenSSL over a hand-written epoll loop, TLS 1.3 and 1.2, stateless tickets.
//
//   --cert FILE --key FILE
//   --mem    OpenSSL never sees the socket: memory BIOs, a shared receive and a shared send buffer,
//            one recv and one send a wakeup, as a stack of filters does it
//   --bio    a BIO of our own instead, which reads where the received bytes lie and writes to
//            one send buffer that all connections share: nothing is copied, as far as can be
//   --piece BYTES    how much `source` writes at a time, 16384 if it is not given
//   --nora   no read-ahead: two reads a record; matters only without --mem
//   --keep   without SSL_MODE_RELEASE_BUFFERS: 34 KiB of buffers stay with each connection
#include "common.h"
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>

struct conn {
    SSL *ssl;
    BIO *in, *out; // of --mem
    char *owe;
    uint32_t len, off;
    uint8_t open, want;
};
static struct conn conns[MAXFD];
static SSL_CTX *ctx;
static BIO_METHOD *method; // of --bio
static int ep, lfd, f_mem, f_bio, piece;

// What was received and not read yet, and what waits to be sent, of the connection whose turn it
// is.
static char wire[256 * 1024], ready[512 * 1024];
static size_t wire_off, wire_len, ready_len;

static void ctl(int op, int fd, uint32_t ev)
{
    struct epoll_event e;
    e.events = ev;
    e.data.u64 = 0;
    e.data.fd = fd;
    epoll_ctl(ep, op, fd, &e);
}

static void drop(int fd)
{
    struct conn *c = &conns[fd];
    SSL_set_quiet_shutdown(c->ssl, 1);
    SSL_free(c->ssl);
    free(c->owe);
    memset(c, 0, sizeof *c);
    ready_len = 0;
    close(fd);
}

static void want_write(int fd, int on)
{
    struct conn *c = &conns[fd];
    if (c->want == on) return;
    c->want = (uint8_t)on;
    ctl(EPOLL_CTL_MOD, fd, on ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void owe(struct conn *c, const char *p, size_t n)
{
    char *b = malloc(c->len + n);
    if (c->len) memcpy(b, c->owe + c->off, c->len);
    memcpy(b + c->len, p, n);
    free(c->owe);
    c->owe = b;
    c->off = 0;
    c->len += (uint32_t)n;
}

// --- a BIO of our own ----------------------------------------------------------------------------

static int bio_read(BIO *b, char *p, int n)
{
    size_t k = wire_len - wire_off < (size_t)n ? wire_len - wire_off : (size_t)n;
    BIO_clear_retry_flags(b);
    if (k == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    memcpy(p, wire + wire_off, k);
    wire_off += k;
    return (int)k;
}

static int bio_write(BIO *b, const char *p, int n)
{
    BIO_clear_retry_flags(b);
    if ((size_t)n > sizeof ready - ready_len) return -1;
    memcpy(ready + ready_len, p, (size_t)n);
    ready_len += (size_t)n;
    return n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    (void)b, (void)num, (void)ptr;
    return cmd == BIO_CTRL_FLUSH;
}

static BIO *bio_new(void)
{
    if (!method) {
        method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "bench");
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_ctrl(method, bio_ctrl);
    }
    BIO *b = BIO_new(method);
    BIO_set_init(b, 1);
    return b;
}

// What OpenSSL has written since it was last asked.
static size_t written(struct conn *c, char **p)
{
    if (f_bio) {
        *p = ready;
        return ready_len;
    }
    long n = BIO_get_mem_data(c->out, p);
    return n > 0 ? (size_t)n : 0;
}

static void forget(struct conn *c)
{
    ready_len = 0;
    if (!f_bio) BIO_reset(c->out);
}

// With --mem and --bio: what OpenSSL wants on the wire goes out in one send.
static int wire_out(int fd)
{
    struct conn *c = &conns[fd];
    for (;;) {
        ssize_t w;
        if (c->len) {
            w = send(fd, c->owe + c->off, c->len, MSG_NOSIGNAL);
            if (w < 0) {
                if (errno != EAGAIN) return -1;
                want_write(fd, 1);
                return 0;
            }
            c->off += (uint32_t)w;
            c->len -= (uint32_t)w;
            if (c->len) continue;
            free(c->owe);
            c->owe = NULL;
            c->off = 0;
        }
        char *p;
        size_t n = written(c, &p);
        if (n == 0) break;
        w = send(fd, p, n, MSG_NOSIGNAL);
        if (w < 0 && errno != EAGAIN) return -1;
        if (w < 0) w = 0;
        if ((size_t)w < n) owe(c, p + w, n - (size_t)w);
        forget(c);
    }
    want_write(fd, 0);
    return 0;
}

static int put(int fd, const char *p, size_t n)
{
    struct conn *c = &conns[fd];
    if (f_mem) {
        ERR_clear_error();
        return SSL_write(c->ssl, p, (int)n) == (int)n ? 0 : -1;
    }
    while (n && !c->len) {
        ERR_clear_error();
        int w = SSL_write(c->ssl, p, (int)n);
        if (w <= 0) {
            if (SSL_get_error(c->ssl, w) != SSL_ERROR_WANT_WRITE) return -1;
            break;
        }
        p += w;
        n -= (size_t)w;
    }
    if (n) {
        owe(c, p, n);
        want_write(fd, 1);
    }
    return 0;
}

static int pour(int fd)
{
    struct conn *c = &conns[fd];
    for (int i = 0; i < 16; i++) {
        if (f_mem) {
            if (c->len) return 0;
            for (int sum = 0; sum < 8 * 16384; sum += piece) {
                if (SSL_write(c->ssl, g_zeros, piece) <= 0) return -1;
            }
            if (wire_out(fd) < 0) return -1;
        } else {
            ERR_clear_error();
            int w = SSL_write(c->ssl, g_zeros, piece);
            if (w <= 0) {
                want_write(fd, 1);
                return SSL_get_error(c->ssl, w) == SSL_ERROR_WANT_WRITE ? 0 : -1;
            }
        }
    }
    want_write(fd, 1);
    return 0;
}

static int input(int fd)
{
    struct conn *c = &conns[fd];
    int r;
    if (f_mem) {
        ssize_t n = recv(fd, wire, sizeof wire, 0);
        if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
        wire_off = 0;
        wire_len = (size_t)n;
        if (!f_bio) BIO_write(c->in, wire, (int)n);
    }
    ERR_clear_error();
    if (!c->open) {
        r = SSL_do_handshake(c->ssl);
        if (r != 1) {
            int e = SSL_get_error(c->ssl, r);
            if (f_mem && wire_out(fd) < 0) return -1;
            return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? 0 : -1;
        }
        c->open = 1;
        if (g_mode == SOURCE) {
            if (f_mem && wire_out(fd) < 0) return -1;
            return pour(fd);
        }
    }
    for (;;) {
        ERR_clear_error();
        r = SSL_read(c->ssl, g_rbuf, RBUF);
        if (r <= 0) {
            int e = SSL_get_error(c->ssl, r);
            if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) return -1;
            break;
        }
        if (g_mode == ECHO_ && put(fd, g_rbuf, (size_t)r) < 0) return -1;
        if (!f_mem && !SSL_has_pending(c->ssl)) break;
    }
    return f_mem ? wire_out(fd) : 0;
}

static int output(int fd)
{
    struct conn *c = &conns[fd];
    if (f_mem) {
        int r = wire_out(fd);
        return !r && g_mode == SOURCE && !c->len ? pour(fd) : r;
    }
    if (g_mode == SOURCE && c->open) return pour(fd);
    while (c->len) {
        ERR_clear_error();
        int w = SSL_write(c->ssl, c->owe + c->off, (int)c->len);
        if (w <= 0) return SSL_get_error(c->ssl, w) == SSL_ERROR_WANT_WRITE ? 0 : -1;
        c->off += (uint32_t)w;
        c->len -= (uint32_t)w;
    }
    free(c->owe);
    c->owe = NULL;
    c->off = 0;
    want_write(fd, 0);
    return 0;
}

static void accept_all(void)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) break;
        if (fd >= MAXFD) {
            close(fd);
            continue;
        }
        struct conn *c = &conns[fd];
        c->ssl = SSL_new(ctx);
        if (f_bio) {
            BIO *b = bio_new();
            SSL_set_bio(c->ssl, b, b);
        } else if (f_mem) {
            c->in = BIO_new(BIO_s_mem());
            c->out = BIO_new(BIO_s_mem());
            BIO_set_mem_eof_return(c->in, -1);
            SSL_set_bio(c->ssl, c->in, c->out);
        } else {
            SSL_set_fd(c->ssl, fd);
        }
        SSL_set_accept_state(c->ssl);
        ctl(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

static void on_event(int fd, uint32_t events)
{
    int r = events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? input(fd) : 0;
    if (r >= 0 && events & EPOLLOUT) r = output(fd);
    if (r < 0) drop(fd);
}

static void open_context(void)
{
    long modes = SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER;
    if (!flag("--keep")) modes |= SSL_MODE_RELEASE_BUFFERS;
    ctx = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(ctx, option("--cert", "cert.pem")) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, option("--key", "key.pem"), SSL_FILETYPE_PEM) != 1) {
        fprintf(stderr, "tls: bad certificate\n");
        exit(1);
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, modes);
    if (!f_mem && !flag("--nora")) SSL_CTX_set_read_ahead(ctx, 1);
}

int main(int argc, char **argv)
{
    static struct epoll_event ev[512];
    start(argc, argv);
    f_bio = flag("--bio");
    f_mem = f_bio || flag("--mem");
    piece = atoi(option("--piece", "16384"));
    if (piece < 1 || piece > 16384) {
        fprintf(stderr, "tls: --piece is at most 16384\n");
        return 2;
    }
    open_context();
    ep = epoll_create1(EPOLL_CLOEXEC);
    lfd = listen_tcp();
    ctl(EPOLL_CTL_ADD, lfd, EPOLLIN);
    for (;;) {
        int n = epoll_wait(ep, ev, 512, -1);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.fd == lfd) {
                accept_all();
            } else {
                on_event(ev[i].data.fd, ev[i].events);
            }
        }
    }
}
