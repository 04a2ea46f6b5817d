// Peers that keep to the letter of TLS and mean no good: floods, renegotiation, oversized messages.
// The peer is OpenSSL used directly, or bytes made by hand.
#include "tls/tls_test.h"

#if !defined(NETIO_TLS_OPENSSL)
TEST(tls_abuse, needs_openssl_as_the_peer) { SKIP("not built with OpenSSL"); }
TEST_MAIN("tls_abuse", T(tls_abuse, needs_openssl_as_the_peer))
#else
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

// --- an OpenSSL peer in memory ------------------------------------------------------------------

typedef struct raw_peer {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out;
    netio_tls *t; // the engine at the other end
} raw_peer;

static char secret_hex[129];

static void on_secret(const SSL *ssl, const char *line)
{
    static const char label[] = "CLIENT_TRAFFIC_SECRET_0 ";
    (void)ssl;
    if (strncmp(line, label, sizeof label - 1) == 0)
        snprintf(secret_hex, sizeof secret_hex, "%s", strrchr(line, ' ') + 1);
}

static void raw_open(raw_peer *p, netio_tls *t, bool server, int version)
{
    memset(p, 0, sizeof *p);
    p->t = t;
    p->ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    SSL_CTX_set_min_proto_version(p->ctx, version);
    SSL_CTX_set_max_proto_version(p->ctx, version);
    SSL_CTX_set_keylog_callback(p->ctx, on_secret);
    SSL_CTX_set_ciphersuites(p->ctx, "TLS_AES_128_GCM_SHA256");
    if (server) {
        CHECK(SSL_CTX_use_certificate_chain_file(p->ctx, tls_file("good.pem")) == 1);
        CHECK(SSL_CTX_use_PrivateKey_file(p->ctx, tls_file("good.pem"), SSL_FILETYPE_PEM) == 1);
    }
    p->ssl = SSL_new(p->ctx);
    p->in = BIO_new(BIO_s_mem());
    p->out = BIO_new(BIO_s_mem());
    SSL_set_bio(p->ssl, p->in, p->out);
    if (server) SSL_set_accept_state(p->ssl);
    else SSL_set_connect_state(p->ssl);
}

static void raw_close(raw_peer *p)
{
    SSL_free(p->ssl);
    SSL_CTX_free(p->ctx);
    netio_tls_destroy(p->t);
}

// What the peer has written goes to the engine; what the engine has, to the peer.
static size_t raw_move(raw_peer *p)
{
    char *data;
    long n = BIO_get_mem_data(p->out, &data);
    if (n > 0) CHECK_OK(netio_tls_feed(p->t, data, (size_t)n));
    (void)BIO_reset(p->out);
    netio_buf out = netio_tls_out(p->t);
    if (out.len) BIO_write(p->in, out.data, (int)out.len);
    netio_tls_out_drop(p->t, out.len);
    return (size_t)n + out.len;
}

static void raw_handshake(raw_peer *p)
{
    int ours, theirs;
    do {
        theirs = SSL_do_handshake(p->ssl);
        raw_move(p);
        ours = netio_tls_handshake(p->t);
    } while (raw_move(p));
    CHECK_EQ(1, theirs);
    CHECK_OK(ours);
}

static raw_peer raw_client(int version)
{
    raw_peer p;
    netio_tls *t;
    netio_tls_ctx *ctx = tls_server_ctx("good.pem", NULL);
    CHECK_OK(netio_tls_server(&t, ctx));
    netio_tls_ctx_unref(ctx);
    raw_open(&p, t, false, version);
    raw_handshake(&p);
    return p;
}

static raw_peer raw_server(int version)
{
    raw_peer p;
    netio_tls *t;
    netio_tls_ctx *ctx = tls_client_ctx(NULL);
    CHECK_OK(netio_tls_client(&t, ctx, "example.test", NULL));
    netio_tls_ctx_unref(ctx);
    raw_open(&p, t, true, version);
    raw_handshake(&p);
    return p;
}

static void expect_limit(netio_tls *t)
{
    netio_tls_error e;
    CHECK_OK(netio_tls_get_error(t, &e));
    CHECK_EQ(NETIO_TLS_LIMIT, e.code);
    CHECK(strstr(e.text, "without data") != NULL);
}

// --- floods -------------------------------------------------------------------------------------

TEST(tls_abuse, key_updates_in_a_row_end_the_connection)
{
    raw_peer p = raw_client(TLS1_3_VERSION);
    char byte;
    int n = 0;
    ptrdiff_t r = NETIO_EAGAIN;
    while (r == NETIO_EAGAIN && n < 200) {
        CHECK(SSL_key_update(p.ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
        CHECK(SSL_do_handshake(p.ssl) == 1);
        raw_move(&p);
        r = netio_tls_read(p.t, &byte, 1);
        n++;
    }
    CHECK_ERR(NETIO_ETLS, r);
    CHECK_EQ(33, n);
    expect_limit(p.t);
    raw_close(&p);
}

TEST(tls_abuse, key_updates_between_data_are_fine)
{
    raw_peer p = raw_client(TLS1_3_VERSION);
    char byte;
    for (int i = 0; i < 200; i++) {
        CHECK(SSL_key_update(p.ssl,
                             i % 2 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
        CHECK_EQ(1, SSL_write(p.ssl, "x", 1));
        raw_move(&p);
        CHECK_EQ(1, netio_tls_read(p.t, &byte, 1));
        CHECK_ERR(NETIO_EAGAIN, netio_tls_read(p.t, &byte, 1));
        CHECK_EQ(1, netio_tls_write(p.t, "y", 1)); // under the new keys
        raw_move(&p);
        CHECK_EQ(1, SSL_read(p.ssl, &byte, 1));
    }
    raw_close(&p);
}

// RFC 8446 section 7.1, for one block of SHA-256.
static void expand(uint8_t *out, size_t len, const uint8_t secret[32], const char *label)
{
    uint8_t info[64], block[32];
    unsigned n = 0, size = 32;
    info[n++] = 0;
    info[n++] = (uint8_t)len;
    info[n++] = (uint8_t)(6 + strlen(label));
    memcpy(info + n, "tls13 ", 6);
    memcpy(info + n + 6, label, strlen(label));
    n += 6 + (unsigned)strlen(label);
    info[n++] = 0; // no context
    info[n++] = 1;
    HMAC(EVP_sha256(), secret, 32, info, n, block, &size);
    memcpy(out, block, len);
}

// A record of TLS 1.3 without any content, the `sequence`-th under the client's first keys.
static void empty_record(uint8_t out[22], uint64_t sequence)
{
    static const uint8_t head[5] = {23, 3, 3, 0, 17}, type = 23;
    uint8_t secret[32], key[16], iv[12];
    int n;
    for (int i = 0; i < 32; i++) {
        unsigned value;
        CHECK(sscanf(secret_hex + 2 * i, "%2x", &value) == 1);
        secret[i] = (uint8_t)value;
    }
    expand(key, 16, secret, "key");
    expand(iv, 12, secret, "iv");
    for (int i = 0; i < 8; i++) iv[4 + i] ^= (uint8_t)(sequence >> (56 - 8 * i));
    memcpy(out, head, 5);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    EVP_EncryptInit_ex(c, EVP_aes_128_gcm(), NULL, key, iv);
    EVP_EncryptUpdate(c, NULL, &n, head, 5);
    EVP_EncryptUpdate(c, out + 5, &n, &type, 1);
    EVP_EncryptFinal_ex(c, out + 6, &n);
    EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, 16, out + 6);
    EVP_CIPHER_CTX_free(c);
}

TEST(tls_abuse, empty_records_in_a_row_end_the_connection)
{
    raw_peer p = raw_client(TLS1_3_VERSION);
    uint8_t record[22];
    char byte;
    int n = 0;
    ptrdiff_t r = NETIO_EAGAIN;
    while (r == NETIO_EAGAIN && n < 200) {
        empty_record(record, (uint64_t)n++);
        CHECK_OK(netio_tls_feed(p.t, record, sizeof record));
        r = netio_tls_read(p.t, &byte, 1);
    }
    CHECK_ERR(NETIO_ETLS, r);
    CHECK_BETWEEN(2, 33, n); // the library may have a limit of its own
    raw_close(&p);
}

TEST(tls_abuse, many_tickets_are_not_taken_for_a_flood)
{
    raw_peer p;
    netio_tls *t;
    char byte;
    netio_tls_ctx *ctx = tls_client_ctx(NULL);
    CHECK_OK(netio_tls_client(&t, ctx, "example.test", NULL));
    netio_tls_ctx_unref(ctx);
    raw_open(&p, t, true, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(p.ctx, 20);
    SSL_set_num_tickets(p.ssl, 20);
    raw_handshake(&p);
    raw_move(&p);
    CHECK_ERR(NETIO_EAGAIN, netio_tls_read(p.t, &byte, 1));
    CHECK_EQ(1, SSL_write(p.ssl, "x", 1));
    raw_move(&p);
    CHECK_EQ(1, netio_tls_read(p.t, &byte, 1));
    raw_close(&p);
}

// --- handshakes that are no good ----------------------------------------------------------------

// Feeds `piece` until the engine has enough; returns how many bytes that took.
static size_t feed_until_refused(netio_tls *t, const void *piece, size_t len, size_t limit)
{
    size_t fed = 0;
    int err = NETIO_EAGAIN;
    while (err == NETIO_EAGAIN && fed < limit) {
        CHECK_OK(netio_tls_feed(t, piece, len));
        fed += len;
        err = netio_tls_handshake(t);
        netio_tls_out_drop(t, netio_tls_out(t).len);
    }
    CHECK_ERR(NETIO_ETLS, err);
    return fed;
}

TEST(tls_abuse, a_handshake_has_an_end)
{
    static const struct {
        const char *what;
        uint8_t bytes[16];
        size_t len;
    } rows[] = {
        {"change_cipher_spec", {20, 3, 3, 0, 1, 1}, 6},
        {"empty handshake records", {22, 3, 3, 0, 0}, 5},
        {"hello requests", {22, 3, 3, 0, 4, 0, 0, 0, 0}, 9},
        {"warning alerts", {21, 3, 3, 0, 2, 1, 90}, 7},
        {"a message of 16 MiB", {22, 3, 3, 0, 4, 1, 255, 255, 255}, 9},
        {"a record of 64 KiB", {22, 3, 3, 255, 255, 1, 0}, 7},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int side = 0; side < 2; side++) {
            netio_tls_ctx *ctx = side ? tls_client_ctx(NULL) : tls_server_ctx("good.pem", NULL);
            netio_tls *t;
            uint8_t first[] = {22, 3, 3, 0, 0}; // what begins otherwise is no TLS
            if (side) CHECK_OK(netio_tls_client(&t, ctx, "example.test", NULL));
            else CHECK_OK(netio_tls_server(&t, ctx));
            CHECK_ERR(NETIO_EAGAIN, netio_tls_handshake(t));
            netio_tls_out_drop(t, netio_tls_out(t).len);
            if (rows[i].bytes[0] == 20) CHECK_OK(netio_tls_feed(t, first, 5));
            size_t fed = feed_until_refused(t, rows[i].bytes, rows[i].len, 4 << 20);
            if (fed > 256 << 10)
                test_fail(__FILE__, __LINE__, "%s: %lu bytes", rows[i].what, (unsigned long)fed);
            netio_tls_destroy(t);
            netio_tls_ctx_unref(ctx);
        }
}

TEST(tls_abuse, a_hello_in_records_of_one_byte_is_fine)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    netio_tls *c, *s;
    CHECK_OK(netio_tls_client(&c, client, "example.test", NULL));
    CHECK_OK(netio_tls_server(&s, server));
    CHECK_ERR(NETIO_EAGAIN, netio_tls_handshake(c));
    netio_buf hello = netio_tls_out(c);
    const uint8_t *p = (const uint8_t *)hello.data;
    for (size_t i = 5; i < hello.len; i++) {
        uint8_t record[6] = {22, 3, 1, 0, 1, 0};
        record[5] = p[i];
        CHECK_OK(netio_tls_feed(s, record, 6));
        CHECK_ERR(NETIO_EAGAIN, netio_tls_handshake(s));
    }
    CHECK(netio_tls_out(s).len > 100); // its answer
    netio_tls_destroy(c);
    netio_tls_destroy(s);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- renegotiation ------------------------------------------------------------------------------

TEST(tls_abuse, a_client_cannot_renegotiate)
{
    raw_peer p = raw_client(TLS1_2_VERSION);
    char byte;
    SSL_renegotiate(p.ssl);
    SSL_do_handshake(p.ssl);
    raw_move(&p);
    ptrdiff_t r = netio_tls_read(p.t, &byte, 1);
    CHECK(r == NETIO_EAGAIN || r == NETIO_ETLS);
    CHECK_BETWEEN(1, 100, netio_tls_out(p.t).len); // an alert, no hello
    raw_move(&p);
    CHECK(SSL_do_handshake(p.ssl) != 1);
    raw_close(&p);
}

TEST(tls_abuse, a_server_cannot_renegotiate)
{
    raw_peer p = raw_server(TLS1_2_VERSION);
    char byte;
    SSL_renegotiate(p.ssl);
    SSL_do_handshake(p.ssl); // a HelloRequest
    raw_move(&p);
    ptrdiff_t r = netio_tls_read(p.t, &byte, 1);
    CHECK(r == NETIO_EAGAIN || r == NETIO_ETLS);
    CHECK_BETWEEN(0, 100, netio_tls_out(p.t).len);
    raw_close(&p);
}

// --- hellos that try to be two things -----------------------------------------------------------

static int psk_known(void *user, char *identity, size_t cap, uint8_t *key, size_t key_cap)
{
    (void)user, (void)cap;
    if (strcmp(identity, "sensor-7") != 0 || key_cap < 32) return 0;
    memset(key, 'k', 32);
    return 32;
}

static unsigned psk_wrong(SSL *ssl, const char *hint, char *identity, unsigned cap,
                          unsigned char *key, unsigned key_cap)
{
    (void)ssl, (void)hint, (void)cap, (void)key_cap;
    strcpy(identity, "sensor-7");
    memset(key, 'x', 32); // a name that it knows, and a key that it does not
    return 32;
}

// The offered key goes with SHA-256 only, so a client that offers SHA-384 alone gets a handshake
// with certificates: the name that it offered proves nothing.
TEST(tls_abuse, an_offered_key_is_not_a_proven_one)
{
    netio_tls_config cfg = {0};
    netio_tls_ctx *ctx;
    netio_tls *t;
    netio_tls_info info;
    raw_peer p;
    cfg.cert_file = tls_file("good.pem");
    cfg.psk = psk_known;
    CHECK_OK(netio_tls_ctx_create(&ctx, &cfg, NULL));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(netio_tls_server(&t, ctx));
        raw_open(&p, t, false, TLS1_3_VERSION);
        SSL_set_ciphersuites(p.ssl, i ? "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"
                                      : "TLS_AES_256_GCM_SHA384");
        SSL_set_psk_client_callback(p.ssl, psk_wrong);
        int ours, theirs;
        do {
            theirs = SSL_do_handshake(p.ssl);
            raw_move(&p);
            ours = netio_tls_handshake(p.t);
        } while (raw_move(&p));
        CHECK_OK(netio_tls_get_info(t, &info));
        CHECK_STR("", info.psk_identity);
        CHECK(ours == 0 || (ours == NETIO_ETLS && theirs != 1));
        raw_close(&p);
    }
    netio_tls_ctx_unref(ctx);
}

TEST(tls_abuse, a_second_hello_keeps_the_site)
{
    netio_tls_identity more = {0};
    netio_tls_config cfg = {0};
    netio_tls_ctx *ctx;
    netio_tls *t;
    raw_peer p;
    more.cert_file = tls_file("b_test.pem");
    cfg.cert_file = tls_file("good.pem");
    cfg.more = &more;
    cfg.more_count = 1;
    CHECK_OK(netio_tls_ctx_create(&ctx, &cfg, NULL));
    CHECK_OK(netio_tls_server(&t, ctx));
    raw_open(&p, t, false, TLS1_3_VERSION);
    SSL_set_tlsext_host_name(p.ssl, "b.test");
    CHECK(SSL_set1_groups_list(p.ssl, "P-521:P-256") == 1); // the server wants another share
    raw_handshake(&p);
    X509 *leaf = SSL_get_peer_certificate(p.ssl);
    CHECK(leaf != NULL);
    CHECK(X509_check_host(leaf, "b.test", 0, 0, NULL) == 1);
    X509_free(leaf);
    raw_close(&p);
    netio_tls_ctx_unref(ctx);
}

// --- a peer that never reads --------------------------------------------------------------------

TEST(tls_abuse, a_peer_that_makes_us_answer_and_does_not_read_is_bounded)
{
    raw_peer p = raw_client(TLS1_3_VERSION);
    size_t most = 0;
    char byte;
    for (int i = 0; i < 2000; i++) { // each asks for an answer
        char *data;
        CHECK(SSL_key_update(p.ssl, SSL_KEY_UPDATE_REQUESTED) == 1);
        CHECK_EQ(1, SSL_write(p.ssl, "x", 1));
        long n = BIO_get_mem_data(p.out, &data);
        CHECK_OK(netio_tls_feed(p.t, data, (size_t)n));
        (void)BIO_reset(p.out);
        CHECK_EQ(1, netio_tls_read(p.t, &byte, 1));
        if (netio_tls_out(p.t).len > most) most = netio_tls_out(p.t).len;
    }
    CHECK_BETWEEN(0, 64 << 10, most);
    raw_close(&p);
}

TEST_MAIN("tls_abuse", T(tls_abuse, key_updates_in_a_row_end_the_connection),
          T(tls_abuse, key_updates_between_data_are_fine),
          T(tls_abuse, empty_records_in_a_row_end_the_connection),
          T(tls_abuse, many_tickets_are_not_taken_for_a_flood),
          T(tls_abuse, a_handshake_has_an_end),
          T(tls_abuse, a_hello_in_records_of_one_byte_is_fine),
          T(tls_abuse, a_client_cannot_renegotiate), T(tls_abuse, a_server_cannot_renegotiate),
          T(tls_abuse, an_offered_key_is_not_a_proven_one),
          T(tls_abuse, a_second_hello_keeps_the_site),
          T(tls_abuse, a_peer_that_makes_us_answer_and_does_not_read_is_bounded))
#endif
