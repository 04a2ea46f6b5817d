// bufferevent.c: libevent's bufferevents. The input chain is moved to the output chain, no copy is
// made here.
//
//   --tls CERT KEY   the same over bufferevent_openssl
#include "common.h"
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <openssl/ssl.h>

static struct event_base *base;
static SSL_CTX *ctx;
static struct bufferevent *peers[MAXFD];
static int npeers;

static void on_read(struct bufferevent *b, void *arg)
{
    struct evbuffer *in = bufferevent_get_input(b);
    (void)arg;
    if (g_mode == ECHO_) {
        bufferevent_write_buffer(b, in);
    } else if (g_mode == FAN) {
        size_t n = evbuffer_get_length(in);
        const unsigned char *p = evbuffer_pullup(in, -1);
        for (int i = 0; i < npeers; i++) {
            if (peers[i] != b) bufferevent_write(peers[i], p, n);
        }
        evbuffer_drain(in, n);
    } else {
        evbuffer_drain(in, evbuffer_get_length(in));
    }
}

static void on_write(struct bufferevent *b, void *arg)
{
    (void)arg;
    if (g_mode == SOURCE) {
        evbuffer_add_reference(bufferevent_get_output(b), g_zeros, sizeof g_zeros, NULL, NULL);
    }
}

static void on_event(struct bufferevent *b, short what, void *arg)
{
    (void)arg;
    if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))) return;
    if (g_mode == FAN) {
        for (int i = 0; i < npeers; i++) {
            if (peers[i] == b) {
                peers[i] = peers[--npeers];
                break;
            }
        }
    }
    bufferevent_free(b);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int n,
                      void *arg)
{
    struct bufferevent *b;
    (void)l;
    (void)a;
    (void)n;
    (void)arg;
    if (ctx) {
        b = bufferevent_openssl_socket_new(base, fd, SSL_new(ctx), BUFFEREVENT_SSL_ACCEPTING,
                                           BEV_OPT_CLOSE_ON_FREE);
    } else {
        b = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    }
    bufferevent_setcb(b, on_read, g_mode == SOURCE ? on_write : NULL, on_event, NULL);
    bufferevent_set_max_single_read(b, RBUF);
    bufferevent_set_max_single_write(b, 256 * 1024);
    bufferevent_enable(b, EV_READ | EV_WRITE);
    if (g_mode == FAN) peers[npeers++] = b;
    if (g_mode == SOURCE) on_write(b, NULL);
}

int main(int argc, char **argv)
{
    start(argc, argv);
    for (int i = 3; i + 2 < argc; i++) {
        if (!strcmp(argv[i], "--tls")) {
            ctx = SSL_CTX_new(TLS_server_method());
            if (SSL_CTX_use_certificate_chain_file(ctx, argv[i + 1]) != 1 ||
                SSL_CTX_use_PrivateKey_file(ctx, argv[i + 2], SSL_FILETYPE_PEM) != 1) {
                fprintf(stderr, "bad certificate\n");
                return 1;
            }
        }
    }
    struct event_config *cfg = event_config_new();
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    base = event_base_new_with_config(cfg);
    evconnlistener_new(base, on_accept, NULL, LEV_OPT_CLOSE_ON_FREE, 0, listen_tcp());
    return event_base_dispatch(base);
}
