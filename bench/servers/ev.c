// ev.c: libev. One ev_io to read, one to write that runs only while a write is owed.
#include "common.h"
#include <ev.h>

struct peer {
    ev_io rd, wr;
    char *out;
    size_t len;
};

static void drop(struct ev_loop *l, struct peer *p)
{
    ev_io_stop(l, &p->rd);
    ev_io_stop(l, &p->wr);
    close(p->rd.fd);
    free(p->out);
    free(p);
}

static void on_write(struct ev_loop *l, ev_io *w, int re)
{
    struct peer *p = w->data;
    (void)re;
    if (g_mode == SOURCE) {
        for (int i = 0; i < 8; i++) {
            ssize_t n = send(w->fd, g_zeros, sizeof g_zeros, MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN) {
                drop(l, p);
                return;
            }
            if (n < (ssize_t)sizeof g_zeros) break;
        }
        return;
    }
    ssize_t n = send(w->fd, p->out, p->len, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN) drop(l, p);
        return;
    }
    memmove(p->out, p->out + n, p->len - (size_t)n);
    p->len -= (size_t)n;
    if (!p->len) ev_io_stop(l, w);
}

static void on_read(struct ev_loop *l, ev_io *e, int re)
{
    struct peer *p = e->data;
    (void)re;
    ssize_t n = recv(e->fd, g_rbuf, RBUF, 0), w = 0;
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        drop(l, p);
        return;
    }
    if (g_mode != ECHO_) return;
    if (!p->len) {
        w = send(e->fd, g_rbuf, (size_t)n, MSG_NOSIGNAL);
        if (w < 0) {
            if (errno != EAGAIN) {
                drop(l, p);
                return;
            }
            w = 0;
        }
    }
    if (w == n) return;
    p->out = realloc(p->out, p->len + (size_t)(n - w));
    memcpy(p->out + p->len, g_rbuf + w, (size_t)(n - w));
    p->len += (size_t)(n - w);
    ev_io_start(l, &p->wr);
}

static void on_accept(struct ev_loop *l, ev_io *e, int re)
{
    (void)re;
    for (int k = 0; k < 64; k++) {
        int fd = accept4(e->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct peer *p = calloc(1, sizeof *p);
        p->rd.data = p->wr.data = p;
        ev_io_init(&p->rd, on_read, fd, EV_READ);
        ev_io_init(&p->wr, on_write, fd, EV_WRITE);
        ev_io_start(l, &p->rd);
        if (g_mode == SOURCE) ev_io_start(l, &p->wr);
    }
}

int main(int argc, char **argv)
{
    static ev_io acc;
    start(argc, argv);
    struct ev_loop *l = ev_default_loop(EVFLAG_NOENV);
    ev_io_init(&acc, on_accept, listen_tcp(), EV_READ);
    ev_io_start(l, &acc);
    return ev_run(l, 0);
}
