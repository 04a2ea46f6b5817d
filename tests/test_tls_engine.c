// Two engines that talk in memory: handshakes, data, ends, choices, sessions, keys, limits. Written
// for any backend: what a library may do its own way (alert numbers, texts of its own) is not
// looked at.
#include "tls/tls_test.h"

static const size_t chunks[] = {0, 3, 1};
enum { CHUNKS = sizeof chunks / sizeof chunks[0] };

// --- how contexts are changed -------------------------------------------------------------------

static void only_1_2(netio_tls_config *cfg) { cfg->max_version = NETIO_TLS_1_2; }
static void only_1_3(netio_tls_config *cfg) { cfg->min_version = NETIO_TLS_1_3; }

static void with_alpn(netio_tls_config *cfg)
{
    static const char *const names[] = {"h2", "http/1.1"};
    cfg->alpn = names;
    cfg->alpn_count = 2;
}

static void other_alpn(netio_tls_config *cfg)
{
    static const char *const names[] = {"smtp"};
    cfg->alpn = names;
    cfg->alpn_count = 1;
}

static void late_alpn(netio_tls_config *cfg)
{
    static const char *const names[] = {"spdy/1", "http/1.1"};
    cfg->alpn = names;
    cfg->alpn_count = 2;
}

static const tls_change versions[] = {only_1_2, only_1_3};

// A pair whose handshake is done. Contexts are the caller's.
static void connected(tls_pair *p, netio_tls_ctx *client, netio_tls_ctx *server)
{
    tls_pair_open(p, client, server, "example.test");
    tls_handshake_done(p);
}

static netio_tls_info info_of(netio_tls *t)
{
    netio_tls_info info;
    CHECK_OK(netio_tls_get_info(t, &info));
    return info;
}

static netio_tls_error error_of(const netio_tls *t)
{
    netio_tls_error e;
    CHECK_OK(netio_tls_get_error(t, &e));
    CHECK(e.code != 0 && e.text[0] != 0);
    return e;
}

// --- handshakes and data ------------------------------------------------------------------------

TEST(tls_engine, handshake_and_echo_in_pieces_of_any_size)
{
    static const char *const certs[] = {"good.pem", "rsa.pem", "chain.pem"};
    for (int v = 0; v < 2; v++)
        for (int c = 0; c < 3; c++)
            for (int k = 0; k < CHUNKS; k++) {
                netio_tls_ctx *client = tls_client_ctx(NULL);
                netio_tls_ctx *server = tls_server_ctx(certs[c], versions[v]);
                tls_pair p = {0};
                p.chunk = chunks[k];
                connected(&p, client, server);
                CHECK_EQ(v ? NETIO_TLS_1_3 : NETIO_TLS_1_2, info_of(p.client).version);
                CHECK_EQ(v ? NETIO_TLS_1_3 : NETIO_TLS_1_2, info_of(p.server).version);
                CHECK(strncmp(info_of(p.client).cipher, "TLS_", 4) == 0);
                CHECK_STR(info_of(p.client).cipher, info_of(p.server).cipher);
                tls_send_check(p.client, p.server, 20000, p.chunk);
                tls_send_check(p.server, p.client, 20000, p.chunk);
                tls_pair_close(&p);
                netio_tls_ctx_unref(client);
                netio_tls_ctx_unref(server);
            }
}

TEST(tls_engine, read_and_write_drive_the_handshake)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    tls_pair p = {0};
    char buf[8];
    tls_pair_open(&p, client, server, "example.test");
    CHECK_ERR(NETIO_EAGAIN, netio_tls_write(p.client, "hi", 2));
    CHECK_ERR(NETIO_EAGAIN, netio_tls_read(p.server, buf, sizeof buf));
    while (tls_move(p.client, p.server, 0) || tls_move(p.server, p.client, 0)) {
        netio_tls_read(p.server, buf, sizeof buf);
        netio_tls_read(p.client, buf, sizeof buf);
    }
    CHECK_EQ(2, netio_tls_write(p.client, "hi", 2));
    tls_move(p.client, p.server, 0);
    CHECK_EQ(2, netio_tls_read(p.server, buf, sizeof buf));
    CHECK_EQ(0, netio_tls_read(p.server, buf, 0));
    CHECK_EQ(0, netio_tls_write(p.server, buf, 0));
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_engine, an_idle_connection_keeps_no_buffer)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    tls_pair p = {0};
    long before = test_blocks();
    connected(&p, client, server);
    tls_send_check(p.client, p.server, 70000, 0);
    tls_send_check(p.server, p.client, 70000, 0);
    // Each engine and its name; and what came of the handshake: two sessions.
    CHECK_BETWEEN(0, 4 + 2, test_blocks() - before);
    CHECK_EQ(0, netio_tls_out(p.client).len);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_engine, output_is_bounded_and_never_partial)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    unsigned char *big = (unsigned char *)calloc(1, 1 << 20), got[16384];
    tls_pair p = {0};
    ptrdiff_t n = 0, taken = 0, received = 0;
    connected(&p, client, server);
    taken = netio_tls_write(p.client, big, 1 << 20);
    CHECK_BETWEEN(64 << 10, 80 << 10, taken);
    CHECK_ERR(NETIO_ENOBUFS, netio_tls_write(p.client, big, 1));
    CHECK_BETWEEN(64 << 10, 100 << 10, netio_tls_out(p.client).len);
    while (tls_move(p.client, p.server, 5000)) {
        while ((n = netio_tls_read(p.server, got, sizeof got)) > 0) received += n;
        CHECK_ERR(NETIO_EAGAIN, n);
    }
    CHECK_EQ(taken, received);
    free(big);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_engine, fed_bytes_are_bounded)
{
    netio_tls_ctx *server = tls_server_ctx("good.pem", NULL);
    unsigned char *big = (unsigned char *)calloc(1, 1 << 20);
    netio_tls *t;
    CHECK_OK(netio_tls_server(&t, server));
    CHECK_OK(netio_tls_feed(t, big, 1 << 20));
    CHECK_ERR(NETIO_ENOBUFS, netio_tls_feed(t, big, 1));
    netio_tls_destroy(t);
    free(big);
    netio_tls_ctx_unref(server);
}

// --- ends ---------------------------------------------------------------------------------------

TEST(tls_engine, close_notify_ends_one_direction)
{
    for (int v = 0; v < 2; v++)
        for (int who = 0; who < 2; who++) {
            netio_tls_ctx *client = tls_client_ctx(NULL);
            netio_tls_ctx *server = tls_server_ctx("good.pem", versions[v]);
            tls_pair p = {0};
            char byte;
            connected(&p, client, server);
            netio_tls *first = who ? p.server : p.client, *second = who ? p.client : p.server;
            CHECK_OK(netio_tls_shutdown(first));
            CHECK_OK(netio_tls_shutdown(first)); // again: nothing
            CHECK_ERR(NETIO_EPIPE, netio_tls_write(first, "x", 1));
            tls_move(first, second, 0);
            CHECK_ERR(NETIO_EOF, netio_tls_read(second, &byte, 1));
            CHECK_ERR(NETIO_EOF, netio_tls_read(second, &byte, 1));
            tls_send_check(second, first, 5000, 0); // the other direction lives on
            netio_tls_feed_end(second);             // and the transport's end is no news
            CHECK_ERR(NETIO_EOF, netio_tls_read(second, &byte, 1));
            CHECK_OK(netio_tls_shutdown(second));
            tls_move(second, first, 0);
            netio_tls_feed_end(first);
            CHECK_ERR(NETIO_EOF, netio_tls_read(first, &byte, 1));
            CHECK_ERR(NETIO_ENOENT, netio_tls_get_error(first, &(netio_tls_error){0}));
            tls_pair_close(&p);
            netio_tls_ctx_unref(client);
            netio_tls_ctx_unref(server);
        }
}

static void truncation_is_fine(netio_tls_config *cfg) { cfg->insecure_allow_truncation = true; }

TEST(tls_engine, an_end_without_close_notify_is_told_apart)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    netio_tls_ctx *lax = tls_client_ctx(truncation_is_fine);
    for (int cut = 0; cut < 3; cut++) { // between records, in a record's head, in its middle
        tls_pair p = {0};
        char buf[100];
        connected(&p, cut == 0 ? client : client, server);
        CHECK_EQ(5, netio_tls_write(p.server, "hello", 5));
        netio_buf out = netio_tls_out(p.server);
        CHECK_OK(netio_tls_feed(p.client, out.data, out.len));
        CHECK_OK(netio_tls_feed(p.client, out.data, cut == 0 ? 0u : cut == 1 ? 3u : 10u));
        netio_tls_feed_end(p.client);
        CHECK_EQ(5, netio_tls_read(p.client, buf, sizeof buf)); // what came whole is delivered
        CHECK_ERR(NETIO_ETRUNCATED, netio_tls_read(p.client, buf, sizeof buf));
        CHECK_ERR(NETIO_ETRUNCATED, netio_tls_read(p.client, buf, sizeof buf));
        CHECK_EQ(NETIO_TLS_CUT_OFF, error_of(p.client).code);
        tls_pair_close(&p);

        connected(&p, lax, server);
        netio_tls_feed_end(p.client);
        CHECK_ERR(NETIO_EOF, netio_tls_read(p.client, buf, sizeof buf));
        tls_pair_close(&p);
    }
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
    netio_tls_ctx_unref(lax);
}

// The handshake until `limit` bytes went to one side, which then sees the end.
static void cut_handshake(netio_tls_ctx *client, netio_tls_ctx *server, bool at_client,
                          size_t limit)
{
    tls_pair p = {0};
    size_t passed = 0, moved;
    tls_pair_open(&p, client, server, "example.test");
    netio_tls *victim = at_client ? p.client : p.server, *other = at_client ? p.server : p.client;
    do {
        p.client_err = netio_tls_handshake(p.client);
        p.server_err = netio_tls_handshake(p.server);
        moved = tls_move(victim, other, 0);
        netio_buf out = netio_tls_out(other);
        size_t n = out.len < limit - passed ? out.len : limit - passed;
        CHECK_OK(netio_tls_feed(victim, out.data, n));
        netio_tls_out_drop(other, out.len);
        passed += n;
        moved += n;
    } while (moved);
    netio_tls_feed_end(victim);
    int err = netio_tls_handshake(victim);
    char byte;
    if (err == 0) err = (int)netio_tls_read(victim, &byte, 1); // it was the last flight
    CHECK_ERR(NETIO_ETRUNCATED, err);
    CHECK_EQ(NETIO_TLS_CUT_OFF, error_of(victim).code);
    tls_pair_close(&p);
}

TEST(tls_engine, a_handshake_can_be_cut_off_at_every_byte)
{
    for (int v = 0; v < 2; v++) {
        netio_tls_ctx *client = tls_client_ctx(NULL);
        netio_tls_ctx *server = tls_server_ctx("good.pem", versions[v]);
        tls_pair p = {0};
        connected(&p, client, server);
        tls_pair_close(&p);
        netio_tls_ctx_unref(client);
        for (int side = 0; side < 2; side++) {
            size_t whole = side ? p.to_client : p.to_server;
            // Every byte of heads and of the last ones, every 7th between.
            for (size_t at = 0; at < whole; at += at < 30 || at + 30 > whole ? 1 : 7) {
                client = tls_client_ctx(NULL); // without a session to resume
                cut_handshake(client, server, side == 1, at);
                netio_tls_ctx_unref(client);
            }
        }
        netio_tls_ctx_unref(server);
    }
}

// --- corruption ---------------------------------------------------------------------------------

// A handshake and an exchange in which one bit of what one side sends is flipped.
static void corrupt(netio_tls_ctx *client, netio_tls_ctx *server, bool to_client, size_t at)
{
    static const char want[] = "the quick brown fox";
    tls_pair p = {0};
    size_t passed = 0, moved, rounds = 0;
    char got[64];
    bool wrote[2] = {false, false};
    tls_pair_open(&p, client, server, "example.test");
    do {
        moved = 0;
        for (int side = 0; side < 2; side++) {
            netio_tls *from = side ? p.server : p.client, *to = side ? p.client : p.server;
            if (netio_tls_handshake(from) == 0 && !wrote[side])
                wrote[side] = netio_tls_write(from, want, sizeof want) > 0;
            netio_buf out = netio_tls_out(from);
            unsigned char *copy = (unsigned char *)malloc(out.len + 1);
            if (out.len) memcpy(copy, out.data, out.len);
            if ((side == 1) == to_client) {
                if (at >= passed && at < passed + out.len)
                    copy[at - passed] ^= (unsigned char)(1u << at % 8);
                passed += out.len;
            }
            CHECK_OK(netio_tls_feed(to, copy, out.len));
            netio_tls_out_drop(from, out.len);
            free(copy);
            moved += out.len;
            ptrdiff_t n = netio_tls_read(to, got, sizeof got);
            if (n > 0) {
                CHECK_EQ(sizeof want, n);
                CHECK_MEM(want, got, sizeof want);
            } else CHECK(n == NETIO_EAGAIN || n == NETIO_ETLS); // never an end
        }
    } while (moved && ++rounds < 50);
    CHECK(rounds < 50);
    tls_pair_close(&p);
}

TEST(tls_engine, a_flipped_bit_is_never_delivered)
{
    uint32_t random = 7;
    for (int v = 0; v < 2; v++) {
        netio_tls_ctx *server = tls_server_ctx("good.pem", versions[v]);
        for (int i = 0; i < 150; i++) {
            netio_tls_ctx *client = tls_client_ctx(NULL);
            corrupt(client, server, i % 2 == 0, test_random(&random) % (i % 2 == 0 ? 1500 : 400));
            netio_tls_ctx_unref(client);
        }
        netio_tls_ctx_unref(server);
    }
}

TEST(tls_engine, a_corrupted_record_ends_the_connection)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    tls_pair p = {0};
    char got[100], copy[100];
    connected(&p, client, server);
    CHECK_EQ(5, netio_tls_write(p.client, "hello", 5));
    netio_buf out = netio_tls_out(p.client);
    CHECK(out.len < sizeof copy);
    memcpy(copy, out.data, out.len);
    copy[out.len - 1] ^= 1;
    CHECK_OK(netio_tls_feed(p.server, copy, out.len));
    CHECK_ERR(NETIO_ETLS, netio_tls_read(p.server, got, sizeof got));
    CHECK_EQ(NETIO_TLS_PROTOCOL, error_of(p.server).code);
    tls_move(p.server, p.client, 0);
    CHECK_ERR(NETIO_ETLS, netio_tls_read(p.client, got, sizeof got));
    CHECK_EQ(NETIO_TLS_ALERT, error_of(p.client).code);
    CHECK_ERR(NETIO_ETLS, netio_tls_write(p.server, "x", 1));
    CHECK_ERR(NETIO_ETLS, netio_tls_shutdown(p.server));
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_engine, plain_text_is_recognised)
{
    static const char *const said[] = {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "220 mail ESMTP\r\n",
                                       "SSH-2.0-x\r\n", "\x80\x2e\x01\x03\x01"};
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    for (int i = 0; i < 8; i++) {
        netio_tls *t;
        if (i % 2) CHECK_OK(netio_tls_client(&t, client, "example.test", NULL));
        else CHECK_OK(netio_tls_server(&t, server));
        CHECK_OK(netio_tls_feed(t, said[i / 2], strlen(said[i / 2])));
        CHECK_ERR(NETIO_ETLS, netio_tls_handshake(t));
        CHECK_EQ(NETIO_TLS_PROTOCOL, error_of(t).code);
        CHECK(strstr(error_of(t).text, "does not speak TLS") != NULL);
        if (i < 2) CHECK(strstr(error_of(t).text, "GET / HTTP/1.1..") != NULL);
        netio_tls_destroy(t);
    }
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- versions -----------------------------------------------------------------------------------

static void down_to_1_0(netio_tls_config *cfg)
{
    cfg->insecure_allow_tls_1_0 = true;
    cfg->min_version = NETIO_TLS_1_0;
}

static void old_only(netio_tls_config *cfg)
{
    down_to_1_0(cfg);
    cfg->max_version = NETIO_TLS_1_1;
}

TEST(tls_engine, versions_that_do_not_meet_are_told_so)
{
    static const tls_change rows[][2] = {
        {only_1_2, only_1_3}, {only_1_3, only_1_2}, {old_only, NULL}, {NULL, old_only}};
    for (int i = 0; i < 4; i++) {
        netio_tls_ctx *client = tls_client_ctx(rows[i][0]);
        netio_tls_ctx *server = tls_server_ctx("good.pem", rows[i][1]);
        tls_pair p = {0};
        tls_pair_open(&p, client, server, "example.test");
        tls_handshake(&p);
        CHECK_ERR(NETIO_ETLS, p.client_err);
        CHECK_ERR(NETIO_ETLS, p.server_err);
        CHECK_EQ(NETIO_TLS_VERSION, error_of(p.client).code);
        CHECK_EQ(NETIO_TLS_VERSION, error_of(p.server).code);
        tls_pair_close(&p);
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
    }
    netio_tls_ctx *client = tls_client_ctx(old_only),
                  *server = tls_server_ctx("rsa.pem", down_to_1_0);
    tls_pair p = {0};
    connected(&p, client, server);
    CHECK_EQ(NETIO_TLS_1_1, info_of(p.client).version);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_engine, the_floor_is_1_2_unless_named_insecure)
{
    static const int rows[][4] = {
        // min, max, insecure, result
        {NETIO_TLS_1_1, 0, 0, NETIO_ETLS}, {NETIO_TLS_1_0, 0, 0, NETIO_ETLS},
        {NETIO_TLS_1_0, 0, 1, 0},          {NETIO_TLS_1_3, NETIO_TLS_1_2, 0, NETIO_ETLS},
        {0x0305, 0, 0, NETIO_ENOTSUP},     {0, 0x0305, 0, NETIO_ETLS},
        {0x0300, 0, 1, NETIO_ETLS},        {1, 0, 0, NETIO_ETLS}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_tls_config cfg = {0};
        netio_tls_ctx *ctx = NULL;
        netio_tls_error why;
        cfg.ca_file = tls_file("ca.crt");
        cfg.min_version = rows[i][0];
        cfg.max_version = rows[i][1];
        cfg.insecure_allow_tls_1_0 = rows[i][2] != 0;
        CHECK_ERR(rows[i][3], netio_tls_ctx_create(&ctx, &cfg, &why));
        CHECK_EQ(rows[i][3] ? NETIO_TLS_CONFIG : 0, why.code);
        netio_tls_ctx_unref(ctx);
    }
}

static void chacha(netio_tls_config *cfg)
{
    cfg->max_version = NETIO_TLS_1_2;
    cfg->ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305";
}

TEST(tls_engine, ciphers_can_be_chosen_and_must_be_known)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", chacha);
    netio_tls_config cfg = {0};
    tls_pair p = {0};
    connected(&p, client, server);
    CHECK_STR("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", info_of(p.server).cipher);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
    cfg.ca_file = tls_file("ca.crt");
    cfg.ciphers = "NO-SUCH-CIPHER";
    CHECK_ERR(NETIO_ETLS, netio_tls_ctx_create(&client, &cfg, NULL));
    // Nothing in common: an EC-only suite and an RSA certificate.
    client = tls_client_ctx(chacha);
    server = tls_server_ctx("rsa.pem", NULL);
    tls_pair_open(&p, client, server, "example.test");
    tls_handshake(&p);
    CHECK_ERR(NETIO_ETLS, p.client_err);
    CHECK_EQ(NETIO_TLS_PROTOCOL, error_of(p.server).code);
    CHECK_EQ(NETIO_TLS_ALERT, error_of(p.client).code);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- ALPN ---------------------------------------------------------------------------------------

TEST(tls_engine, alpn_takes_the_servers_choice)
{
    static const struct {
        tls_change client, server;
        const char *want; // NULL: refused
    } rows[] = {{with_alpn, with_alpn, "h2"},
                {with_alpn, late_alpn, "http/1.1"},
                {late_alpn, with_alpn, "http/1.1"},
                {with_alpn, NULL, ""},
                {NULL, with_alpn, ""},
                {with_alpn, other_alpn, NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int v = 0; v < 2; v++) {
            netio_tls_ctx *client = tls_client_ctx(rows[i].client);
            netio_tls_ctx *server = tls_server_ctx("good.pem", rows[i].server);
            tls_pair p = {0};
            tls_pair_open(&p, client, server, "example.test");
            tls_handshake(&p);
            if (rows[i].want) {
                CHECK_OK(p.client_err);
                CHECK_STR(rows[i].want, info_of(p.client).alpn);
                CHECK_STR(rows[i].want, info_of(p.server).alpn);
            } else {
                CHECK_EQ(NETIO_TLS_ALPN, error_of(p.client).code);
                CHECK_EQ(NETIO_TLS_ALPN, error_of(p.server).code);
                CHECK_EQ(120, error_of(p.client).alert_in);
            }
            tls_pair_close(&p);
            netio_tls_ctx_unref(client);
            netio_tls_ctx_unref(server);
        }
}

TEST(tls_engine, alpn_names_are_checked_when_given)
{
    static char longest[257];
    const char *names[33];
    netio_tls_config cfg = {0};
    netio_tls_ctx *ctx;
    memset(longest, 'a', 256);
    cfg.ca_file = tls_file("ca.crt");
    cfg.alpn = names;
    cfg.alpn_count = 1;
    names[0] = "";
    CHECK_ERR(NETIO_ETLS, netio_tls_ctx_create(&ctx, &cfg, NULL));
    names[0] = longest;
    CHECK_ERR(NETIO_ETLS, netio_tls_ctx_create(&ctx, &cfg, NULL));
    longest[255] = 0;
    CHECK_OK(netio_tls_ctx_create(&ctx, &cfg, NULL));
    netio_tls_ctx_unref(ctx);
    for (int i = 0; i < 33; i++) names[i] = "x";
    cfg.alpn_count = 33;
    CHECK_ERR(NETIO_ETLS, netio_tls_ctx_create(&ctx, &cfg, NULL));
    cfg.alpn = NULL;
    CHECK_ERR(NETIO_EINVAL, netio_tls_ctx_create(&ctx, &cfg, NULL));
}

// --- which certificate --------------------------------------------------------------------------

static netio_tls_identity more[2];

static void two_sites(netio_tls_config *cfg)
{
    memset(more, 0, sizeof more);
    more[0].cert_file = tls_file("b_test.pem");
    more[1].cert_file = tls_file("rsa.pem"); // the same names as good.pem, another type of key
    cfg->more = more;
    cfg->more_count = 2;
}

static void expect_subject_name(netio_tls_ctx *client, netio_tls_ctx *server, const char *ask,
                                const char *first_name, const char *cipher)
{
    tls_pair p = {0};
    tls_pair_open(&p, client, server, ask);
    tls_handshake_done(&p);
    CHECK_STR(first_name, info_of(p.client).chain[0].names[0]);
    if (cipher && !strstr(info_of(p.client).cipher, cipher))
        test_fail(__FILE__, __LINE__, "%s", info_of(p.client).cipher);
    tls_pair_close(&p);
}

static void ecdsa_only(netio_tls_config *cfg)
{
    cfg->max_version = NETIO_TLS_1_2;
    cfg->ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
}

static void rsa_only(netio_tls_config *cfg)
{
    cfg->max_version = NETIO_TLS_1_2;
    cfg->ciphers = "ECDHE-RSA-AES128-GCM-SHA256";
}

static void any_name(netio_tls_config *cfg) { cfg->insecure_no_name = true; }

TEST(tls_engine, the_name_asked_for_chooses_the_certificate)
{
    netio_tls_ctx *server = tls_server_ctx("good.pem", two_sites);
    netio_tls_ctx *client = tls_client_ctx(NULL), *any = tls_client_ctx(any_name);
    netio_tls_ctx *ec = tls_client_ctx(ecdsa_only), *rsa = tls_client_ctx(rsa_only);
    expect_subject_name(client, server, "example.test", "example.test", NULL);
    expect_subject_name(client, server, "b.test", "b.test", NULL);
    expect_subject_name(client, server, "x.b.test", "b.test", NULL);
    expect_subject_name(client, server, "127.0.0.1", "example.test", NULL); // no SNI for addresses
    expect_subject_name(any, server, "unknown.test", "example.test", NULL); // the first
    expect_subject_name(ec, server, "example.test", "example.test", "ECDSA");
    if (!tls_is("BoringSSL")) // which has one certificate at a time
        expect_subject_name(rsa, server, "example.test", "example.test", "_RSA");
    expect_subject_name(rsa, server, "b.test", "b.test", "_RSA");
    netio_tls_ctx_unref(server);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(any);
    netio_tls_ctx_unref(ec);
    netio_tls_ctx_unref(rsa);
}

static struct {
    netio_tls_ctx *give;
    char asked[100];
    int calls;
} sni;

static netio_tls_ctx *on_sni(void *user, const char *name)
{
    CHECK(user == &sni);
    sni.calls++;
    snprintf(sni.asked, sizeof sni.asked, "%s", name);
    return sni.give;
}

static void with_on_sni(netio_tls_config *cfg)
{
    cfg->user = &sni;
    cfg->on_sni = on_sni;
}

static void mutual(netio_tls_config *cfg)
{
    cfg->ca_file = tls_file("ca.crt");
    cfg->client_cert = NETIO_TLS_CLIENT_CERT_REQUIRED;
}

TEST(tls_engine, on_sni_gives_another_context)
{
    for (int v = 0; v < 2; v++) {
        netio_tls_ctx *b = tls_server_ctx("b_test.pem", NULL),
                      *ctx = tls_server_ctx("good.pem", with_on_sni);
        netio_tls_ctx *client = tls_client_ctx(versions[v]);
        tls_pair p = {0};
        memset(&sni, 0, sizeof sni);
        expect_subject_name(client, ctx, "example.test", "example.test", NULL);
        CHECK_EQ(1, sni.calls);
        CHECK_STR("example.test", sni.asked);
        sni.give = b;
        tls_pair_open(&p, client, ctx, "B.Test.");
        tls_handshake(&p); // it holds a reference: the context can be replaced meanwhile
        netio_tls_ctx_unref(b);
        sni.give = NULL;
        CHECK_OK(p.client_err);
        CHECK_STR("b.test", sni.asked);
        CHECK_STR("b.test", info_of(p.client).chain[0].names[0]);
        tls_send_check(p.client, p.server, 100, 0);
        tls_pair_close(&p);
        netio_tls_ctx_unref(ctx);
        netio_tls_ctx_unref(client);
    }
}

TEST(tls_engine, a_session_of_one_site_does_not_open_another)
{
    for (int v = 0; v < 2; v++) {
        netio_tls_ctx *open = tls_server_ctx("good.pem", with_on_sni);
        netio_tls_ctx *strict = tls_server_ctx("good.pem", mutual);
        netio_tls_ctx *client = tls_client_ctx(versions[v]);
        tls_pair p = {0};
        memset(&sni, 0, sizeof sni);
        connected(&p, client, open); // a session of the open site
        tls_pair_close(&p);
        sni.give = strict; // the same name, now with client certificates
        tls_pair_open(&p, client, open, "example.test");
        tls_handshake(&p);
        CHECK_ERR(NETIO_ETLS, p.server_err);
        CHECK_EQ(NETIO_TLS_NO_CERT, error_of(p.server).verify);
        tls_pair_close(&p);
        netio_tls_ctx_unref(open);
        netio_tls_ctx_unref(strict);
        netio_tls_ctx_unref(client);
    }
}

TEST(tls_engine, a_context_lives_as_long_as_its_engines)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    tls_pair p = {0};
    tls_pair_open(&p, client, server, "example.test");
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
    tls_handshake_done(&p);
    tls_send_check(p.client, p.server, 100, 0);
    tls_pair_close(&p);
}

// --- certificates and keys in every form --------------------------------------------------------

static int password(void *user, char *buf, size_t cap)
{
    const char *text = (const char *)user;
    CHECK(strlen(text) <= cap);
    memcpy(buf, text, strlen(text));
    return (int)strlen(text);
}

TEST(tls_engine, certificates_and_keys_come_in_every_form)
{
    static const struct {
        const char *cert, *key, *password, *error; // error NULL: fine
    } rows[] = {
        {"good.pem", NULL, NULL, NULL},
        {"good.crt", "key.pem", NULL, NULL},
        {"good.der", "key.der", NULL, NULL},
        {"good.der", "key.pem", NULL, NULL},
        {"good.crt", "key_secret.pem", "secret", NULL},
        {"good.crt", "key_secret.der", "secret", NULL},
        {"chain.p12", NULL, "secret", NULL},
        {"open.p12", NULL, NULL, NULL},
        {"good.crt", "key_secret.pem", "wrong", "wrong password"},
        {"good.crt", "key_secret.pem", NULL, "set key_password"},
        {"good.crt", "key_secret.der", "wrong", "wrong password"},
        {"chain.p12", NULL, "wrong", "wrong password"},
        {"chain.p12", NULL, NULL, "set key_password"},
        {"good.crt", "rsa.key", NULL, "does not fit"},
        {"good.crt", "ca.key", NULL, "does not fit"},
        {"good.crt", NULL, NULL, "no private key"},
        {"good.crt", "good.crt", NULL, "no private key"},
        {"missing.pem", NULL, NULL, "missing.pem: no such file"},
        {"good.crt", "missing.key", NULL, "missing.key: no such file"},
        {"empty.pem", NULL, NULL, "is empty"},
        {"broken.pem", "key.pem", NULL, "no certificate"},
        {"key.pem", "key.pem", NULL, "no certificate"},
        {"index.txt", "key.pem", NULL, "no certificate"},
        {"dir", NULL, NULL, "cannot read"},
        {NULL, "key.pem", NULL, "cert_file or cert is missing"},
        {"rsa1024.pem", NULL, NULL, "too weak"},
        {"sha1.pem", NULL, NULL, "too weak"},
    };
    netio_tls_ctx *client = tls_client_ctx(NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[32];
        netio_tls_config cfg = {0};
        netio_tls_ctx *ctx = NULL;
        netio_tls_error why;
        snprintf(text, sizeof text, "%s", rows[i].password ? rows[i].password : "");
        cfg.user = text;
        if (rows[i].cert) cfg.cert_file = tls_file(rows[i].cert);
        if (rows[i].key) cfg.key_file = tls_file(rows[i].key);
        if (rows[i].password) cfg.key_password = password;
        int err = netio_tls_ctx_create(&ctx, &cfg, &why);
        if (rows[i].error ? err != NETIO_ETLS || !strstr(why.text, rows[i].error) : err != 0)
            test_fail(__FILE__, __LINE__, "%s, %s: %s", rows[i].cert, rows[i].key, why.text);
        CHECK_EQ(rows[i].error ? NETIO_TLS_CONFIG : 0, why.code);
        if (err == 0) tls_expect_ok(client, ctx, "example.test");
        netio_tls_ctx_unref(ctx);
    }
    netio_tls_ctx_unref(client);
}

static char *load(const char *name, size_t *len)
{
    FILE *f = fopen(tls_file(name), "rb");
    char *data = (char *)calloc(1, 200000);
    CHECK(f != NULL);
    *len = fread(data, 1, 199999, f);
    fclose(f);
    return data;
}

TEST(tls_engine, certificates_and_keys_come_from_memory)
{
    static const char *const rows[][2] = {
        {"good.pem", NULL}, {"good.crt", "key.pem"}, {"good.der", "key.der"}, {"open.p12", NULL}};
    netio_tls_ctx *client = tls_client_ctx(NULL), *server;
    for (int i = 0; i < 4; i++)
        for (int text = 0; text < 2; text++) {
            netio_tls_config cfg = {0};
            char *cert, *key = NULL;
            if (text && i >= 2) continue; // DER is no C string
            cfg.cert = cert = load(rows[i][0], &cfg.cert_len);
            if (rows[i][1]) cfg.key = key = load(rows[i][1], &cfg.key_len);
            if (text) cfg.cert_len = cfg.key_len = 0;
            CHECK_OK(netio_tls_ctx_create(&server, &cfg, NULL));
            free(cert);
            free(key);
            tls_expect_ok(client, server, "example.test");
            netio_tls_ctx_unref(server);
        }
    netio_tls_ctx_unref(client);
}

TEST(tls_engine, a_server_needs_a_certificate)
{
    netio_tls_ctx *client = tls_client_ctx(NULL);
    netio_tls *t;
    CHECK_ERR(NETIO_ENOENT, netio_tls_server(&t, client));
    netio_tls_ctx_unref(client);
}

// --- sessions -----------------------------------------------------------------------------------

static struct {
    char data[16384], name[100];
    size_t len;
    int count;
} kept;

static void on_session(void *user, const char *name, const void *session, size_t len)
{
    CHECK(user == &kept && len <= sizeof kept.data);
    memcpy(kept.data, session, len);
    kept.len = len;
    kept.count++;
    snprintf(kept.name, sizeof kept.name, "%s", name);
}

static void keeping(netio_tls_config *cfg)
{
    cfg->user = &kept;
    cfg->on_session = on_session;
}

static int keeping_version;

static void keeping_at(netio_tls_config *cfg)
{
    keeping(cfg);
    cfg->max_version = keeping_version;
}

// Connect with a session (NULL: what the context has), say whether it was resumed.
static bool resumes(netio_tls_ctx *client, netio_tls_ctx *server, const char *name,
                    const void *session, size_t len)
{
    tls_pair p = {0};
    netio_tls_client_opts opts = {0};
    char byte;
    opts.session = session;
    opts.session_len = len;
    CHECK_OK(netio_tls_client(&p.client, client, name, &opts));
    CHECK_OK(netio_tls_server(&p.server, server));
    tls_handshake_done(&p);
    bool resumed = info_of(p.client).resumed;
    CHECK_EQ(resumed, info_of(p.server).resumed);
    CHECK_ERR(NETIO_EAGAIN, netio_tls_read(p.client, &byte, 1)); // tickets of TLS 1.3
    tls_send_check(p.client, p.server, 100, 0);
    tls_send_check(p.server, p.client, 100, 0);
    CHECK(info_of(p.client).chain_len >= 1); // who it is is known either way
    tls_pair_close(&p);
    return resumed;
}

TEST(tls_engine, a_second_connection_is_resumed_by_itself)
{
    for (int v = 0; v < 2; v++) {
        netio_tls_ctx *client = tls_client_ctx(versions[v]),
                      *server = tls_server_ctx("good.pem", NULL);
        CHECK(!resumes(client, server, "example.test", NULL, 0));
        for (int i = 0; i < 5; i++) CHECK(resumes(client, server, "example.test", NULL, 0));
        CHECK(!resumes(client, server, "www.example.test", NULL, 0)); // another host
        netio_tls_ctx_unref(client);
        client = tls_client_ctx(versions[v]); // a new context knows nothing
        CHECK(!resumes(client, server, "example.test", NULL, 0));
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
    }
}

TEST(tls_engine, sessions_can_be_kept_elsewhere)
{
    for (int v = 0; v < 2; v++) {
        netio_tls_ctx *server = tls_server_ctx("good.pem", versions[v]),
                      *client = tls_client_ctx(keeping);
        memset(&kept, 0, sizeof kept);
        CHECK(!resumes(client, server, "example.test", NULL, 0));
        CHECK(kept.count >= 1);
        CHECK_STR("example.test", kept.name);
        netio_tls_ctx_unref(client);
        client = tls_client_ctx(keeping); // of the next start of the program
        char *copy = (char *)malloc(kept.len);
        size_t len = kept.len;
        memcpy(copy, kept.data, len);
        CHECK(resumes(client, server, "example.test", copy, len));
        free(copy);
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
    }
}

static void no_tickets(netio_tls_config *cfg) { cfg->no_tickets = true; }

TEST(tls_engine, no_tickets_means_no_resumption)
{
    for (int v = 0; v < 2; v++)
        for (int who = 0; who < 2; who++) {
            keeping_version = v ? NETIO_TLS_1_3 : NETIO_TLS_1_2;
            netio_tls_ctx *server = tls_server_ctx("good.pem", who ? NULL : no_tickets);
            netio_tls_config cfg = {0};
            netio_tls_ctx *client;
            cfg.ca_file = tls_file("ca.crt");
            cfg.no_tickets = who == 1;
            keeping_at(&cfg);
            CHECK_OK(netio_tls_ctx_create(&client, &cfg, NULL));
            memset(&kept, 0, sizeof kept);
            CHECK(!resumes(client, server, "example.test", NULL, 0));
            CHECK(!resumes(client, server, "example.test", NULL, 0));
            CHECK_EQ(0, kept.count);
            netio_tls_ctx_unref(client);
            netio_tls_ctx_unref(server);
        }
}

// Policies other than the one a session was made under.
static void p_alpn(netio_tls_config *cfg) { with_alpn(cfg); }
static void p_both_roots(netio_tls_config *cfg) { cfg->ca_file = tls_file("both.pem"); }
static void p_cert(netio_tls_config *cfg) { cfg->cert_file = tls_file("client.pem"); }
static void p_staple(netio_tls_config *cfg) { cfg->require_staple = true; }

static void p_no_chain(netio_tls_config *cfg)
{
    keeping(cfg);
    cfg->insecure_no_chain = true;
}

static void p_no_name(netio_tls_config *cfg)
{
    keeping(cfg);
    cfg->insecure_no_name = true;
}

static void p_no_time(netio_tls_config *cfg)
{
    keeping(cfg);
    cfg->insecure_no_time = true;
}

static bool say_yes(void *user, const netio_tls_info *peer) { return (void)user, peer != NULL; }

static void p_asking(netio_tls_config *cfg) { cfg->on_verify = say_yes; }

static void with_staple(netio_tls_config *cfg) { cfg->staple_file = tls_file("staple_good.der"); }

TEST(tls_engine, a_session_counts_only_under_the_policy_it_was_made_under)
{
    static const tls_change others[] = {p_alpn,    p_both_roots, p_cert,   p_staple, p_no_chain,
                                        p_no_name, p_no_time,    p_asking, only_1_2, only_1_3};
    netio_tls_ctx *server = tls_server_ctx("good.pem", with_staple);
    netio_tls_ctx *client = tls_client_ctx(keeping);
    memset(&kept, 0, sizeof kept);
    CHECK(!resumes(client, server, "example.test", NULL, 0));
    char *copy = (char *)malloc(kept.len), *bad = (char *)malloc(kept.len);
    size_t len = kept.len;
    memcpy(copy, kept.data, len);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (others[i] == p_staple && tls_is("BoringSSL")) continue; // it cannot read them
        netio_tls_ctx *other = tls_client_ctx(others[i]);
        if (resumes(other, server, "example.test", copy, len))
            test_fail(__FILE__, __LINE__, "policy %lu resumed", (unsigned long)i);
        netio_tls_ctx_unref(other);
    }
    CHECK(!resumes(client, server, "www.example.test", copy, len));
    for (size_t at = 0; at < len; at += at < 60 || at + 40 > len ? 1 : 37) { // corrupted
        memcpy(bad, copy, len);
        bad[at] ^= 1;
        CHECK(!resumes(client, server, "example.test", bad, len));
    }
    for (size_t at = 0; at < len; at += 29)
        CHECK(!resumes(client, server, "example.test", copy, at));
    CHECK(resumes(client, server, "example.test", copy, len)); // and it was still good
    free(copy);
    free(bad);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_engine, unverified_sessions_are_not_given_out)
{
    static const tls_change lax[] = {p_no_chain, p_no_name, p_no_time};
    netio_tls_ctx *server = tls_server_ctx("untrusted.pem", NULL);
    netio_tls_ctx *good = tls_server_ctx("good.pem", NULL);
    memset(&kept, 0, sizeof kept);
    for (int i = 0; i < 3; i++) {
        netio_tls_ctx *client = tls_client_ctx(lax[i]);
        CHECK(!resumes(client, i == 0 ? server : good, "example.test", NULL, 0));
        CHECK(!resumes(client, i == 0 ? server : good, "example.test", NULL, 0));
        CHECK_EQ(0, kept.count);
        netio_tls_ctx_unref(client);
    }
    netio_tls_ctx_unref(server);
    netio_tls_ctx_unref(good);
}

static int64_t now;

static void keeping_now(netio_tls_config *cfg)
{
    keeping(cfg);
    cfg->verify_time = now;
}

TEST(tls_engine, a_session_ends_with_its_time_and_with_the_certificate)
{
    netio_tls_ctx *server = tls_server_ctx("good.pem", NULL);
    memset(&kept, 0, sizeof kept);
    now = 1750000000;
    netio_tls_ctx *client = tls_client_ctx(keeping_now);
    CHECK(!resumes(client, server, "example.test", NULL, 0));
    char *copy = (char *)malloc(kept.len);
    size_t len = kept.len;
    memcpy(copy, kept.data, len);
    netio_tls_ctx_unref(client);
    static const struct {
        int64_t later;
        bool resumed;
    } rows[] = {{10, true}, {86400, false}};
    for (int i = 0; i < 2; i++) {
        now = 1750000000 + rows[i].later;
        client = tls_client_ctx(keeping_now);
        CHECK_EQ(rows[i].resumed, resumes(client, server, "example.test", copy, len));
        netio_tls_ctx_unref(client);
    }
    free(copy);
    now = 2524607999 - 60; // the certificate's last minute
    client = tls_client_ctx(keeping_now);
    CHECK(!resumes(client, server, "example.test", NULL, 0));
    copy = (char *)malloc(kept.len);
    len = kept.len;
    memcpy(copy, kept.data, len);
    netio_tls_ctx_unref(client);
    now += 120;
    client = tls_client_ctx(keeping_now);
    tls_pair p = {0};
    netio_tls_client_opts opts = {0};
    opts.session = copy;
    opts.session_len = len;
    CHECK_OK(netio_tls_client(&p.client, client, "example.test", &opts));
    CHECK_OK(netio_tls_server(&p.server, server));
    tls_handshake(&p);
    CHECK_EQ(NETIO_TLS_EXPIRED, error_of(p.client).verify); // by a full handshake
    tls_pair_close(&p);
    free(copy);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

static uint8_t secrets[2][32];
static size_t secret_count;

static void with_secrets(netio_tls_config *cfg)
{
    cfg->ticket_keys = (const uint8_t(*)[32])secrets;
    cfg->ticket_key_count = secret_count;
}

static void mutual_with_secrets(netio_tls_config *cfg)
{
    mutual(cfg);
    with_secrets(cfg);
}

TEST(tls_engine, servers_that_share_ticket_keys_share_sessions)
{
    for (int v = 0; v < 2; v++) {
        netio_tls_ctx *client = tls_client_ctx(versions[v]);
        memset(secrets, 1, sizeof secrets);
        secret_count = 1;
        netio_tls_ctx *a = tls_server_ctx("good.pem", with_secrets);
        netio_tls_ctx *b = tls_server_ctx("good.pem", with_secrets),
                      *alone = tls_server_ctx("good.pem", NULL);
        CHECK(!resumes(client, a, "example.test", NULL, 0));
        CHECK(resumes(client, b, "example.test", NULL, 0));      // another machine
        CHECK(!resumes(client, alone, "example.test", NULL, 0)); // a stale ticket: in full
        CHECK(!resumes(client, a, "example.test", NULL, 0));
        netio_tls_ctx_unref(b);
        memcpy(secrets[1], secrets[0], 32); // renewed: the old one still opens
        memset(secrets[0], 2, 32);
        secret_count = 2;
        b = tls_server_ctx("good.pem", with_secrets);
        CHECK(resumes(client, b, "example.test", NULL, 0));
        netio_tls_ctx_unref(a);
        a = tls_server_ctx("good.pem", mutual_with_secrets);
        tls_pair p = {0};
        tls_pair_open(&p, client, a, "example.test"); // a session without its checks: in full
        tls_handshake(&p);
        CHECK_EQ(NETIO_TLS_NO_CERT, error_of(p.server).verify);
        tls_pair_close(&p);
        netio_tls_ctx_unref(a);
        netio_tls_ctx_unref(b);
        netio_tls_ctx_unref(alone);
        netio_tls_ctx_unref(client);
    }
}

static void with_client_cert(netio_tls_config *cfg) { cfg->cert_file = tls_file("client.pem"); }

static int asked;

static bool count_asked(void *user, const netio_tls_info *peer)
{
    (void)user;
    asked++;
    return peer->chain_len >= 1;
}

static void mutual_asking(netio_tls_config *cfg)
{
    mutual(cfg);
    cfg->on_verify = count_asked;
}

TEST(tls_engine, a_resumed_client_is_still_known_and_asked_about)
{
    netio_tls_ctx *client = tls_client_ctx(with_client_cert);
    netio_tls_ctx *server = tls_server_ctx("good.pem", mutual_asking);
    tls_pair p = {0};
    asked = 0;
    CHECK(!resumes(client, server, "example.test", NULL, 0));
    CHECK_EQ(1, asked);
    tls_pair_open(&p, client, server, "example.test");
    tls_handshake_done(&p);
    CHECK(info_of(p.server).resumed);
    CHECK_EQ(1, info_of(p.server).chain_len);
    CHECK_STR("CN=example.test", info_of(p.server).chain[0].subject);
    CHECK_EQ(2, asked);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

static void few_sessions(netio_tls_config *cfg) { cfg->session_max = 3; }

TEST(tls_engine, the_number_of_sessions_kept_is_bounded)
{
    netio_tls_ctx *client = tls_client_ctx(few_sessions),
                  *server = tls_server_ctx("good.pem", NULL);
    long before = test_blocks();
    for (int i = 0; i < 10; i++) resumes(client, server, "www.example.test", NULL, 0);
    CHECK_BETWEEN(0, 3, test_blocks() - before);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- pre-shared keys ----------------------------------------------------------------------------

static struct {
    char identity[64], key[64];
    char asked[64];
} psk;

static int psk_client(void *user, char *identity, size_t cap, uint8_t *key, size_t key_cap)
{
    (void)user, (void)cap, (void)key_cap;
    memcpy(identity, psk.identity, strlen(psk.identity) + 1);
    memcpy(key, psk.key, strlen(psk.key));
    return (int)strlen(psk.key);
}

static int psk_server(void *user, char *identity, size_t cap, uint8_t *key, size_t key_cap)
{
    static const char secret[] = "0123456789abcdef0123456789abcdef";
    (void)user, (void)cap;
    snprintf(psk.asked, sizeof psk.asked, "%s", identity);
    if (strcmp(identity, "sensor-7") != 0 || key_cap < 32) return 0;
    memcpy(key, secret, 32);
    return 32;
}

static void with_psk_client(netio_tls_config *cfg) { cfg->psk = psk_client; }

static netio_tls_ctx *psk_server_ctx(const char *pem, tls_change version)
{
    netio_tls_config cfg = {0};
    netio_tls_ctx *ctx = NULL;
    netio_tls_error why;
    cfg.psk = psk_server;
    if (pem) cfg.cert_file = tls_file(pem);
    version(&cfg);
    if (netio_tls_ctx_create(&ctx, &cfg, &why) == NETIO_ENOTSUP) SKIP("%s", why.text);
    CHECK(ctx != NULL);
    return ctx;
}

TEST(tls_engine, a_pre_shared_key_replaces_certificates)
{
    static const struct {
        const char *identity, *key;
        bool good;
    } rows[] = {{"sensor-7", "0123456789abcdef0123456789abcdef", true},
                {"sensor-7", "0123456789abcdef0123456789abcdeX", false},
                {"sensor-8", "0123456789abcdef0123456789abcdef", false},
                {"", "0123456789abcdef0123456789abcdef", false}};
    char texts[2][160];
    for (int v = 0; v < (tls_is("BoringSSL") ? 1 : 2); v++) {
        netio_tls_ctx *server = psk_server_ctx(NULL, versions[v]),
                      *client = tls_client_ctx(with_psk_client);
        for (int i = 0; i < 4; i++) {
            tls_pair p = {0};
            memset(&psk, 0, sizeof psk);
            strcpy(psk.identity, rows[i].identity);
            strcpy(psk.key, rows[i].key);
            tls_pair_open(&p, client, server, NULL); // there is no name to check
            tls_handshake(&p);
            if (rows[i].good) {
                CHECK_OK(p.client_err);
                CHECK_OK(p.server_err);
                CHECK_STR("sensor-7", info_of(p.server).psk_identity);
                CHECK(!info_of(p.client).resumed && !info_of(p.server).resumed);
                tls_send_check(p.client, p.server, 1000, 0);
                tls_send_check(p.server, p.client, 1000, 0);
            } else {
                CHECK_ERR(NETIO_ETLS, p.client_err);
                CHECK_ERR(NETIO_ETLS, p.server_err);
                if (i < 3) memcpy(texts[i - 1], error_of(p.client).text, 160);
            }
            tls_pair_close(&p);
        }
        CHECK_STR(texts[0], texts[1]); // a wrong name looks like a wrong key
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
    }
}

TEST(tls_engine, a_client_with_a_key_takes_no_certificate)
{
    for (int v = 0; v < (tls_is("BoringSSL") ? 1 : 2); v++) {
        netio_tls_ctx *server = tls_server_ctx("good.pem", versions[v]);
        netio_tls_ctx *client = tls_client_ctx(with_psk_client);
        tls_pair p = {0};
        strcpy(psk.identity, "sensor-7");
        strcpy(psk.key, "0123456789abcdef0123456789abcdef");
        tls_pair_open(&p, client, server, "example.test");
        tls_handshake(&p);
        CHECK_ERR(NETIO_ETLS, p.client_err);
        CHECK_EQ(NETIO_TLS_REFUSED, error_of(p.client).verify);
        tls_pair_close(&p);
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
        // A server may have both.
        server = psk_server_ctx("good.pem", versions[v]);
        client = tls_client_ctx(NULL);
        tls_expect_ok(client, server, "example.test");
        netio_tls_ctx_unref(client);
        client = tls_client_ctx(with_psk_client);
        tls_pair_open(&p, client, server, "example.test");
        tls_handshake_done(&p);
        CHECK_STR("sensor-7", info_of(p.server).psk_identity);
        tls_pair_close(&p);
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
    }
}

// --- the rest -----------------------------------------------------------------------------------

TEST(tls_engine, both_ends_export_the_same_keys)
{
    for (int v = 0; v < 2; v++) {
        netio_tls_ctx *client = tls_client_ctx(NULL),
                      *server = tls_server_ctx("good.pem", versions[v]);
        tls_pair p = {0};
        uint8_t a[32], b[32], c[32];
        tls_pair_open(&p, client, server, "example.test");
        CHECK_ERR(NETIO_EAGAIN, netio_tls_export(p.client, "EXPORTER-x", NULL, 0, a, 32));
        tls_handshake_done(&p);
        CHECK_OK(netio_tls_export(p.client, "EXPORTER-Channel-Binding", NULL, 0, a, 32));
        CHECK_OK(netio_tls_export(p.server, "EXPORTER-Channel-Binding", NULL, 0, b, 32));
        CHECK_MEM(a, b, 32);
        CHECK_OK(netio_tls_export(p.client, "EXPORTER-other", NULL, 0, c, 32));
        CHECK(memcmp(a, c, 32) != 0);
        CHECK_OK(netio_tls_export(p.client, "EXPORTER-Channel-Binding", "context", 7, c, 32));
        CHECK(memcmp(a, c, 32) != 0);
        CHECK_OK(netio_tls_export(p.server, "EXPORTER-Channel-Binding", "context", 7, b, 32));
        CHECK_MEM(c, b, 32);
        tls_pair_close(&p);
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
    }
}

static int key_lines;

static void on_keylog(void *user, const char *line)
{
    CHECK(user == &key_lines);
    CHECK(strncmp(line, "CLIENT_", 7) == 0 || strncmp(line, "SERVER_", 7) == 0 ||
          strncmp(line, "EXPORTER_SECRET", 15) == 0);
    key_lines++;
}

static void with_keylog(netio_tls_config *cfg)
{
    cfg->user = &key_lines;
    cfg->on_keylog = on_keylog;
}

TEST(tls_engine, secrets_are_logged_only_where_asked_for)
{
    netio_tls_ctx *client = tls_client_ctx(with_keylog), *server = tls_server_ctx("good.pem", NULL);
    key_lines = 0;
    tls_expect_ok(client, server, "example.test");
    CHECK_BETWEEN(4, 6, key_lines);
    netio_tls_ctx_unref(client);
    client = tls_client_ctx(NULL);
    key_lines = 0;
    tls_expect_ok(client, server, "example.test");
    CHECK_EQ(0, key_lines);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

static void small_chains(netio_tls_config *cfg) { cfg->peer_chain_max = 16 << 10; }

TEST(tls_engine, the_peers_certificates_are_bounded)
{
    for (int v = 0; v < 2; v++) {
        netio_tls_ctx *client = tls_client_ctx(small_chains);
        netio_tls_ctx *server = tls_server_ctx("large.pem", versions[v]);
        tls_pair p = {0};
        tls_pair_open(&p, client, server, "example.test");
        tls_handshake(&p);
        CHECK_ERR(NETIO_ETLS, p.client_err);
        CHECK_EQ(NETIO_TLS_LIMIT, error_of(p.client).code);
        CHECK(strstr(error_of(p.client).text, "peer_chain_max") != NULL);
        tls_pair_close(&p);
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
    }
}

TEST(tls_engine, misuse_is_an_error)
{
    netio_tls_ctx *ctx;
    netio_tls_config cfg = {0};
    netio_tls_info info;
    netio_tls_error e;
    CHECK_ERR(NETIO_EINVAL, netio_tls_ctx_create(NULL, &cfg, NULL));
    CHECK_ERR(NETIO_EINVAL, netio_tls_ctx_create(&ctx, NULL, NULL));
    cfg.pin_count = 1;
    CHECK_ERR(NETIO_EINVAL, netio_tls_ctx_create(&ctx, &cfg, NULL));
    cfg.pin_count = 0;
    cfg.backend = 99;
    CHECK_ERR(NETIO_ENOTSUP, netio_tls_ctx_create(&ctx, &cfg, &e));
    CHECK_EQ(NETIO_TLS_CONFIG, e.code);
    CHECK(netio_tls_backend(99) == NULL);
    CHECK(netio_tls_backend(NETIO_TLS_BACKEND_AUTO)[0] != 0);
    netio_tls_ctx_unref(NULL);
    netio_tls_destroy(NULL);
    CHECK_ERR(NETIO_EINVAL, netio_tls_handshake(NULL));
    CHECK_ERR(NETIO_EINVAL, netio_tls_read(NULL, &e, 1));
    CHECK_ERR(NETIO_EINVAL, netio_tls_write(NULL, &e, 1));
    CHECK_ERR(NETIO_EINVAL, netio_tls_feed(NULL, &e, 1));
    CHECK_ERR(NETIO_EINVAL, netio_tls_shutdown(NULL));
    CHECK_ERR(NETIO_ENOENT, netio_tls_get_info(NULL, &info));
    CHECK_ERR(NETIO_ENOENT, netio_tls_get_error(NULL, &e));
    CHECK_EQ(0, netio_tls_out(NULL).len);
    netio_tls_feed_end(NULL);
    netio_tls_out_drop(NULL, 1);
}

// --- memory runs out ----------------------------------------------------------------------------

// Everything once, with the n-th allocation failing. True: none failed any more.
static bool with_failure_at(long n)
{
    netio_tls_config c = {0}, s = {0};
    netio_tls_ctx *client = NULL, *server = NULL;
    netio_tls_info info;
    tls_pair p = {0};
    c.ca_file = tls_file("ca.crt");
    s.cert_file = tls_file("chain.pem");
    with_alpn(&c);
    with_alpn(&s);
    two_sites(&s);
    c.on_verify = say_yes;
    long before = test_allocs();
    test_alloc_fail_at(n);
    int err = netio_tls_ctx_create(&client, &c, NULL);
    if (err == 0) err = netio_tls_ctx_create(&server, &s, NULL);
    if (err == 0) err = netio_tls_client(&p.client, client, "example.test", NULL);
    if (err == 0) err = netio_tls_server(&p.server, server);
    for (int i = 0; i < 4 && err == 0; i++) {
        int end = netio_tls_handshake(p.client);
        if (end < 0 && end != NETIO_EAGAIN) err = end;
        netio_buf out = netio_tls_out(p.client);
        if (err == 0) err = netio_tls_feed(p.server, out.data, out.len);
        netio_tls_out_drop(p.client, out.len);
        end = netio_tls_handshake(p.server);
        if (end < 0 && end != NETIO_EAGAIN && err == 0) err = end;
        out = netio_tls_out(p.server);
        if (err == 0) err = netio_tls_feed(p.client, out.data, out.len);
        netio_tls_out_drop(p.server, out.len);
    }
    if (err == 0) err = netio_tls_get_info(p.client, &info);
    if (err == 0) CHECK_EQ(2, info.chain_len);
    bool whole = test_allocs() - before < n;
    test_alloc_fail_at(0);
    if (err < 0) CHECK_ERR(NETIO_ENOMEM, err);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
    return whole;
}

TEST(tls_engine, every_allocation_may_fail)
{
    long n = 1, blocks = test_blocks();
    while (!with_failure_at(n)) {
        CHECK_EQ(blocks, test_blocks());
        n++;
    }
    CHECK_BETWEEN(40, 400, n);
}

TEST_MAIN("tls_engine", T(tls_engine, handshake_and_echo_in_pieces_of_any_size),
          T(tls_engine, read_and_write_drive_the_handshake),
          T(tls_engine, an_idle_connection_keeps_no_buffer),
          T(tls_engine, output_is_bounded_and_never_partial), T(tls_engine, fed_bytes_are_bounded),
          T(tls_engine, close_notify_ends_one_direction),
          T(tls_engine, an_end_without_close_notify_is_told_apart),
          T(tls_engine, a_handshake_can_be_cut_off_at_every_byte),
          T(tls_engine, a_flipped_bit_is_never_delivered),
          T(tls_engine, a_corrupted_record_ends_the_connection),
          T(tls_engine, plain_text_is_recognised),
          T(tls_engine, versions_that_do_not_meet_are_told_so),
          T(tls_engine, the_floor_is_1_2_unless_named_insecure),
          T(tls_engine, ciphers_can_be_chosen_and_must_be_known),
          T(tls_engine, alpn_takes_the_servers_choice),
          T(tls_engine, alpn_names_are_checked_when_given),
          T(tls_engine, the_name_asked_for_chooses_the_certificate),
          T(tls_engine, on_sni_gives_another_context),
          T(tls_engine, a_session_of_one_site_does_not_open_another),
          T(tls_engine, a_context_lives_as_long_as_its_engines),
          T(tls_engine, certificates_and_keys_come_in_every_form),
          T(tls_engine, certificates_and_keys_come_from_memory),
          T(tls_engine, a_server_needs_a_certificate),
          T(tls_engine, a_second_connection_is_resumed_by_itself),
          T(tls_engine, sessions_can_be_kept_elsewhere),
          T(tls_engine, no_tickets_means_no_resumption),
          T(tls_engine, a_session_counts_only_under_the_policy_it_was_made_under),
          T(tls_engine, unverified_sessions_are_not_given_out),
          T(tls_engine, a_session_ends_with_its_time_and_with_the_certificate),
          T(tls_engine, servers_that_share_ticket_keys_share_sessions),
          T(tls_engine, a_resumed_client_is_still_known_and_asked_about),
          T(tls_engine, the_number_of_sessions_kept_is_bounded),
          T(tls_engine, a_pre_shared_key_replaces_certificates),
          T(tls_engine, a_client_with_a_key_takes_no_certificate),
          T(tls_engine, both_ends_export_the_same_keys),
          T(tls_engine, secrets_are_logged_only_where_asked_for),
          T(tls_engine, the_peers_certificates_are_bounded), T(tls_engine, misuse_is_an_error),
          T(tls_engine, every_allocation_may_fail))
