// event.c: libevent's plain events. One persistent EV_READ for each connection; recv and send are
// called here.
#include "common.h"
#include <event2/event.h>

static struct event_base *base;

struct peer {
    struct event *rd, *wr;
    char *out;
    size_t len;
    int fd;
};

static void drop(struct peer *p)
{
    event_free(p->rd);
    event_free(p->wr);
    close(p->fd);
    free(p->out);
    free(p);
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
    struct peer *p = arg;
    (void)what;
    if (g_mode == SOURCE) {
        for (int i = 0; i < 8; i++) {
            ssize_t w = send(fd, g_zeros, sizeof g_zeros, MSG_NOSIGNAL);
            if (w < (ssize_t)sizeof g_zeros) break;
        }
        event_add(p->wr, NULL);
        return;
    }
    ssize_t w = send(fd, p->out, p->len, MSG_NOSIGNAL);
    if (w < 0) {
        if (errno != EAGAIN) {
            drop(p);
        } else {
            event_add(p->wr, NULL);
        }
        return;
    }
    memmove(p->out, p->out + w, p->len - (size_t)w);
    p->len -= (size_t)w;
    if (p->len) event_add(p->wr, NULL);
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
    struct peer *p = arg;
    (void)what;
    ssize_t n = recv(fd, g_rbuf, RBUF, 0), w = 0;
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        drop(p);
        return;
    }
    if (g_mode != ECHO_) return;
    if (!p->len) {
        w = send(fd, g_rbuf, (size_t)n, MSG_NOSIGNAL);
        if (w < 0) {
            if (errno != EAGAIN) {
                drop(p);
                return;
            }
            w = 0;
        }
    }
    if (w == n) return;
    p->out = realloc(p->out, p->len + (size_t)(n - w));
    memcpy(p->out + p->len, g_rbuf + w, (size_t)(n - w));
    p->len += (size_t)(n - w);
    event_add(p->wr, NULL);
}

static void on_accept(evutil_socket_t l, short what, void *arg)
{
    (void)what;
    (void)arg;
    for (int k = 0; k < 64; k++) {
        int fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct peer *p = calloc(1, sizeof *p);
        p->fd = fd;
        p->rd = event_new(base, fd, EV_READ | EV_PERSIST, on_read, p);
        p->wr = event_new(base, fd, EV_WRITE, on_write, p);
        event_add(p->rd, NULL);
        if (g_mode == SOURCE) event_add(p->wr, NULL);
    }
}

int main(int argc, char **argv)
{
    start(argc, argv);
    struct event_config *cfg = event_config_new();
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    base = event_base_new_with_config(cfg);
    event_add(event_new(base, listen_tcp(), EV_READ | EV_PERSIST, on_accept, NULL), NULL);
    return event_base_dispatch(base);
}
