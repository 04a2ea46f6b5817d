// uv.c: libuv. One static read buffer, uv_try_write first and uv_write for the rest, which is the
// cheapest use of its interface.
//
//   --write   always uv_write with a copy on the heap, as tutorials do
#include "common.h"
#include <uv.h>

static uv_loop_t *loop;
static int always;

struct peer {
    uv_tcp_t h;
    int at;
};
static struct peer *peers[MAXFD];
static int npeers;

struct wr {
    uv_write_t r;
    char data[];
};

static void on_closed(uv_handle_t *h) { free(h); }

static void drop(uv_handle_t *h)
{
    struct peer *p = (struct peer *)h;
    if (uv_is_closing(h)) return;
    if (g_mode == FAN) {
        peers[p->at] = peers[--npeers];
        peers[p->at]->at = p->at;
    }
    uv_close(h, on_closed);
}

static void on_alloc(uv_handle_t *h, size_t want, uv_buf_t *b)
{
    (void)h;
    (void)want;
    b->base = g_rbuf;
    b->len = RBUF;
}

static void on_written(uv_write_t *r, int st)
{
    if (st < 0) drop((uv_handle_t *)r->handle);
    free(r);
}

static void put(uv_stream_t *s, const char *p, size_t n)
{
    if (!always) {
        uv_buf_t b = uv_buf_init((char *)p, (unsigned)n);
        int w = uv_try_write(s, &b, 1);
        if (w == (int)n) return;
        if (w < 0 && w != UV_EAGAIN) return;
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        }
    }
    struct wr *w = malloc(sizeof *w + n);
    memcpy(w->data, p, n);
    uv_buf_t b = uv_buf_init(w->data, (unsigned)n);
    uv_write(&w->r, s, &b, 1, on_written);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    if (n < 0) {
        drop((uv_handle_t *)s);
        return;
    }
    if (!n) return;
    if (g_mode == ECHO_) {
        put(s, b->base, (size_t)n);
    } else if (g_mode == FAN) {
        for (int i = 0; i < npeers; i++) {
            if ((uv_stream_t *)peers[i] != s) put((uv_stream_t *)peers[i], b->base, (size_t)n);
        }
    }
}

static void more(uv_write_t *r, int st)
{
    uv_buf_t b = uv_buf_init(g_zeros, sizeof g_zeros);
    if (st < 0) {
        free(r);
        return;
    }
    uv_write(r, r->handle, &b, 1, more);
}

static void on_conn(uv_stream_t *l, int st)
{
    struct peer *p = malloc(sizeof *p);
    if (st < 0) {
        free(p);
        return;
    }
    uv_tcp_init(loop, &p->h);
    if (uv_accept(l, (uv_stream_t *)&p->h) < 0) {
        uv_close((uv_handle_t *)&p->h, on_closed);
        return;
    }
    if (g_mode == FAN) {
        p->at = npeers;
        peers[npeers++] = p;
    }
    uv_read_start((uv_stream_t *)&p->h, on_alloc, on_read);
    if (g_mode == SOURCE) {
        for (int i = 0; i < 2; i++) {
            uv_write_t *r = malloc(sizeof *r);
            r->handle = (uv_stream_t *)&p->h;
            more(r, 0);
        }
    }
}

static void on_dgram(uv_udp_t *u, ssize_t n, const uv_buf_t *b, const struct sockaddr *from,
                     unsigned fl)
{
    (void)fl;
    if (n <= 0 || !from) return;
    uv_buf_t o = uv_buf_init(b->base, (unsigned)n);
    uv_udp_try_send(u, &o, 1, from);
}

int main(int argc, char **argv)
{
    struct sockaddr_in a;
    start(argc, argv);
    always = flag("--write");
    loop = uv_default_loop();
    a = loopback();
    if (g_mode == UDP) {
        static uv_udp_t u;
        uv_udp_init(loop, &u);
        uv_udp_bind(&u, (struct sockaddr *)&a, 0);
        uv_udp_recv_start(&u, on_alloc, on_dgram);
    } else {
        static uv_tcp_t l;
        uv_tcp_init(loop, &l);
        uv_tcp_open(&l, listen_tcp());
        uv_listen((uv_stream_t *)&l, BACKLOG, on_conn);
    }
    return uv_run(loop, UV_RUN_DEFAULT);
}
