#include "tls_test.h"

const char *tls_file(const char *name)
{
    static char paths[8][512];
    static unsigned next;
    const char *dir = getenv("NETIO_TEST_CERTS");
    char *out = paths[next++ % 8];
    if (!dir || !dir[0]) SKIP("NETIO_TEST_CERTS names no directory that tls/certs.sh made");
    snprintf(out, sizeof paths[0], "%s/%s", dir, name);
    return out;
}

bool tls_is(const char *library)
{
    return strstr(netio_tls_backend(NETIO_TLS_BACKEND_AUTO), library) != NULL;
}

static netio_tls_ctx *make(netio_tls_config *cfg, tls_change how)
{
    netio_tls_ctx *ctx = NULL;
    netio_tls_error why;
    if (how) how(cfg);
    int err = netio_tls_ctx_create(&ctx, cfg, &why);
    if (err == NETIO_ENOTSUP) SKIP("%s: %s", netio_tls_backend(NETIO_TLS_BACKEND_AUTO), why.text);
    if (err < 0) test_fail(__FILE__, __LINE__, "%s", why.text);
    return ctx;
}

netio_tls_ctx *tls_server_ctx(const char *pem, tls_change how)
{
    netio_tls_config cfg = {0};
    cfg.cert_file = tls_file(pem);
    return make(&cfg, how);
}

netio_tls_ctx *tls_client_ctx(tls_change how)
{
    netio_tls_config cfg = {0};
    cfg.ca_file = tls_file("ca.crt");
    return make(&cfg, how);
}

void tls_pair_open(tls_pair *p, netio_tls_ctx *client, netio_tls_ctx *server, const char *name)
{
    size_t chunk = p->chunk;
    memset(p, 0, sizeof *p);
    p->chunk = chunk;
    CHECK_OK(netio_tls_client(&p->client, client, name, NULL));
    CHECK_OK(netio_tls_server(&p->server, server));
}

void tls_pair_close(tls_pair *p)
{
    netio_tls_destroy(p->client);
    netio_tls_destroy(p->server);
    p->client = p->server = NULL;
}

size_t tls_move(netio_tls *from, netio_tls *to, size_t chunk)
{
    netio_buf out = netio_tls_out(from);
    size_t n = chunk && chunk < out.len ? chunk : out.len;
    if (n) CHECK_OK(netio_tls_feed(to, out.data, n));
    netio_tls_out_drop(from, n);
    return n;
}

void tls_handshake(tls_pair *p)
{
    size_t moved;
    do {
        p->client_err = netio_tls_handshake(p->client);
        moved = tls_move(p->client, p->server, p->chunk);
        p->to_server += moved;
        p->server_err = netio_tls_handshake(p->server);
        size_t back = tls_move(p->server, p->client, p->chunk);
        p->to_client += back;
        moved += back;
    } while (moved);
}

void tls_handshake_done(tls_pair *p)
{
    netio_tls_error e;
    tls_handshake(p);
    if (p->client_err != 0 && netio_tls_get_error(p->client, &e) == 0)
        test_fail(__FILE__, __LINE__, "client: %s", e.text);
    if (p->server_err != 0 && netio_tls_get_error(p->server, &e) == 0)
        test_fail(__FILE__, __LINE__, "server: %s", e.text);
    CHECK_OK(p->client_err);
    CHECK_OK(p->server_err);
}

void tls_send_check(netio_tls *from, netio_tls *to, size_t len, size_t chunk)
{
    unsigned char *want = (unsigned char *)malloc(len + 1), got[4096];
    size_t sent = 0, received = 0;
    test_fill(want, len, (uint32_t)len);
    while (received < len) {
        if (sent < len) {
            ptrdiff_t n = netio_tls_write(from, want + sent, len - sent);
            if (n > 0) sent += (size_t)n;
            else CHECK_ERR(NETIO_ENOBUFS, n);
        }
        size_t moved = tls_move(from, to, chunk);
        ptrdiff_t n;
        while ((n = netio_tls_read(to, got, sizeof got)) > 0) {
            CHECK(received + (size_t)n <= len);
            CHECK_MEM(want + received, got, (size_t)n);
            received += (size_t)n;
        }
        CHECK_ERR(NETIO_EAGAIN, n);
        CHECK(moved || received == len);
    }
    free(want);
}

void tls_expect_ok(netio_tls_ctx *client, netio_tls_ctx *server, const char *name)
{
    tls_pair p = {0};
    tls_pair_open(&p, client, server, name);
    tls_handshake_done(&p);
    tls_pair_close(&p);
}

void tls_expect_refused(netio_tls_ctx *client, netio_tls_ctx *server, const char *name,
                        unsigned bits)
{
    tls_pair p = {0};
    netio_tls_error e;
    char byte;
    tls_pair_open(&p, client, server, name);
    tls_handshake(&p);
    CHECK_ERR(NETIO_ETLS, p.client_err);
    CHECK_OK(netio_tls_get_error(p.client, &e));
    CHECK_EQ(NETIO_TLS_VERIFY, e.code);
    CHECK_EQ(bits, e.verify);
    CHECK(e.text[0] != 0);
    CHECK_ERR(NETIO_ETLS, netio_tls_read(p.client, &byte, 1));
    CHECK_ERR(NETIO_ETLS, netio_tls_write(p.client, "x", 1)); // no application byte goes out
    CHECK_ERR(NETIO_ETLS, netio_tls_read(p.server, &byte, 1));
    CHECK_OK(netio_tls_get_error(p.server, &e)); // it heard why
    CHECK_EQ(NETIO_TLS_ALERT, e.code);
    CHECK(e.alert_in >= 0);
    tls_pair_close(&p);
}
