// One end of TLS over blocking sockets, or through a proxy on the loop, for test_tls.py.
//
//     tls_driver server [options]              prints "PORT n", then serves one client after
//                                              another: echoes, or answers a line with GET
//     tls_driver client HOST:PORT [options]    sends "hello\n" and wants it back,
//                                              as it is or reversed (s_server -rev)
//
//     --cert F --key F --ca F --alpn NAME --min 1.2|1.3 --max 1.2|1.3 --name NAME
//     --clients none|ask|require (server)      --count N (clients served, connections made; 1)
//     --psk IDENTITY:KEY                       --stapled F (server) --staple (client: required)
//     --proxy URL (client: on the loop, one connection)
//
// One line for each connection: "OK version cipher alpn=x resumed=0 peer=subject", or "FAIL text".
#define NETIO_IMPLEMENTATION
#define NETIO_TLS_OPENSSL
#include "netio_tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *name, *psk, *proxy;
    int count;
} o;

static int psk(void *user, char *identity, size_t cap, uint8_t *key, size_t key_cap)
{
    const char *colon = strchr(o.psk, ':');
    size_t n = (size_t)(colon - o.psk), len = strlen(colon + 1);
    if (n >= cap || len > key_cap) return 0;
    if (user) { // the server's
        if (strlen(identity) != n || memcmp(identity, o.psk, n) != 0) return 0;
    } else {
        memcpy(identity, o.psk, n);
        identity[n] = 0;
    }
    memcpy(key, colon + 1, len);
    return (int)len;
}

static void tell(netio_tls *t)
{
    netio_tls_info info;
    if (netio_tls_get_info(t, &info) < 0) return;
    printf("OK %s %s alpn=%s resumed=%d peer=%s\n", info.version_text, info.cipher, info.alpn,
           info.resumed, info.chain ? info.chain[0].subject : info.psk_identity);
    fflush(stdout);
}

static void fail(const char *text, int err)
{
    printf("FAIL %s\n", text[0] ? text : netio_strerror(err));
    fflush(stdout);
}

static void talk(netio_stream *st)
{
    static const char page[] = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nnetio\n";
    char buf[4096];
    ptrdiff_t n;
    while ((n = netio_stream_recv(st, buf, sizeof buf, 10000)) > 0) {
        if (n > 4 && memcmp(buf, "GET ", 4) == 0) {
            netio_stream_send_all(st, page, sizeof page - 1, NULL, 10000);
            break;
        }
        if (netio_stream_send_all(st, buf, (size_t)n, NULL, 10000) < 0) break;
    }
    printf("END %s\n", n >= 0 ? "answered" : netio_errname(n));
    fflush(stdout);
}

static int serve(netio_tls_ctx *ctx)
{
    netio_socket listener, s;
    netio_addr a;
    if (netio_listen(&listener, "127.0.0.1:0", NULL) < 0) return 1;
    if (netio_local_addr(listener, &a) < 0) return 1;
    printf("PORT %u\n", netio_addr_port(&a));
    fflush(stdout);
    for (int i = 0; i < o.count && netio_accept(&s, listener, NULL, 30000) == 0; i++) {
        netio_stream under = netio_stream_from_socket(s), st;
        netio_tls_error why;
        int err = netio_tls_wrap(&st, &under, NULL, ctx, &why, NULL, 10000);
        if (err < 0) {
            fail(why.text, err);
            netio_stream_close(&under);
            continue;
        }
        tell(netio_tls_stream_engine(&st));
        talk(&st);
        netio_stream_close(&st);
    }
    return 0;
}

static int dial(netio_tls_ctx *ctx, const char *address)
{
    int failed = 0;
    for (int i = 0; i < o.count; i++) {
        netio_socket s;
        netio_stream under, st;
        netio_tls_error why = {0};
        char got[6];
        int err = netio_connect(&s, address, NULL, 10000);
        if (err < 0) return 1;
        under = netio_stream_from_socket(s);
        err = netio_tls_wrap(&st, &under, o.name ? o.name : "localhost", ctx, &why, NULL, 10000);
        if (err < 0) {
            fail(why.text, err);
            netio_stream_close(&under);
            failed = 1;
            continue;
        }
        err = netio_stream_send_all(&st, "hello\n", 6, NULL, 10000);
        if (err == 0) err = netio_stream_recv_exact(&st, got, 6, NULL, 10000);
        if (err == 0 && memcmp(got, "hello\n", 6) != 0 && memcmp(got, "olleh\n", 6) != 0)
            err = NETIO_EPROTO;
        if (err < 0) {
            netio_tls_get_error(netio_tls_stream_engine(&st), &why);
            fail(why.text, err);
            failed = 1;
        } else tell(netio_tls_stream_engine(&st));
        netio_stream_close(&st);
    }
    return failed;
}

// --- through a proxy: a connection of the loop --------------------------------------------------

static int outcome = 1;

static void on_open(netio_conn c) { netio_conn_write(c, "hello\n", 6); }

static void on_frame(netio_conn c, const netio_frame *frame)
{
    outcome = frame->len != 5 || memcmp(frame->data, "hello", 5) != 0;
    tell(netio_tls_conn_engine(c));
    netio_conn_close(c);
}

static void on_close(netio_conn c, int err)
{
    netio_error e;
    if (err < 0 && netio_conn_error(c, &e) == 0) fail(e.text, err);
    netio_loop_stop(netio_conn_loop(c));
}

static int dial_through(netio_tls_ctx *ctx, const char *address)
{
    static const netio_handler handler = {
        .on_open = on_open, .on_frame = on_frame, .on_close = on_close};
    netio_dial_opts opts = {.proxy = o.proxy, .server_name = o.name, .timeout_ms = 10000};
    netio_loop *loop;
    if (netio_loop_create(&loop, NULL) < 0) return 1;
    opts.conn.filter = netio_tls_filter(ctx);
    opts.conn.framing = netio_framing_line(100);
    int err = netio_conn_dial(NULL, loop, address, &handler, &opts);
    if (err < 0) fail("", err);
    else netio_loop_run(loop);
    netio_loop_destroy(loop);
    return outcome;
}

static int version(const char *text) { return strcmp(text, "1.3") ? NETIO_TLS_1_2 : NETIO_TLS_1_3; }

static void set(netio_tls_config *cfg, const char *option, const char *value)
{
    static const char *alpn[1];
    if (strcmp(option, "--cert") == 0) cfg->cert_file = value;
    else if (strcmp(option, "--key") == 0) cfg->key_file = value;
    else if (strcmp(option, "--ca") == 0) cfg->ca_file = value;
    else if (strcmp(option, "--min") == 0) cfg->min_version = version(value);
    else if (strcmp(option, "--max") == 0) cfg->max_version = version(value);
    else if (strcmp(option, "--name") == 0) o.name = value;
    else if (strcmp(option, "--proxy") == 0) o.proxy = value;
    else if (strcmp(option, "--count") == 0) o.count = atoi(value);
    else if (strcmp(option, "--stapled") == 0) cfg->staple_file = value;
    else if (strcmp(option, "--clients") == 0)
        cfg->client_cert = strcmp(value, "require") == 0 ? NETIO_TLS_CLIENT_CERT_REQUIRED
                           : strcmp(value, "ask") == 0   ? NETIO_TLS_CLIENT_CERT_OPTIONAL
                                                         : NETIO_TLS_CLIENT_CERT_NONE;
    else if (strcmp(option, "--alpn") == 0) {
        alpn[0] = value;
        cfg->alpn = alpn;
        cfg->alpn_count = 1;
    } else if (strcmp(option, "--psk") == 0) {
        o.psk = value;
        cfg->psk = psk;
    }
}

int main(int argc, char **argv)
{
    netio_tls_config cfg = {0};
    netio_tls_error why;
    netio_tls_ctx *ctx;
    bool server = argc > 1 && strcmp(argv[1], "server") == 0;
    if (argc < 2 || (!server && argc < 3)) return 2;
    o.count = 1;
    cfg.user = server ? &o : NULL;
    for (int i = server ? 2 : 3; i < argc; i++) {
        if (strcmp(argv[i], "--staple") == 0) cfg.require_staple = true;
        else if (i + 1 < argc) set(&cfg, argv[i], argv[i + 1]), i++;
    }
    if (netio_tls_ctx_create(&ctx, &cfg, &why) < 0) {
        fail(why.text, 0);
        return 1;
    }
    int code = server ? serve(ctx) : o.proxy ? dial_through(ctx, argv[2]) : dial(ctx, argv[2]);
    netio_tls_ctx_unref(ctx);
    return code;
}
