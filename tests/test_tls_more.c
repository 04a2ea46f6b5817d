// TLS in its corners: contexts that on_sni gives, what is lent, sessions that outlive a
// certificate, words for what is left when a check is waived, memory that runs out in the library.
#include "tls/tls_test.h"

#if defined(NETIO_TLS_OPENSSL)
#include <openssl/crypto.h>
#endif

static netio_tls_info info_of(netio_tls *t)
{
    netio_tls_info info;
    CHECK_OK(netio_tls_get_info(t, &info));
    return info;
}

static netio_tls_error error_of(netio_tls *t)
{
    netio_tls_error e;
    CHECK_OK(netio_tls_get_error(t, &e));
    return e;
}

static void only_1_2(netio_tls_config *cfg) { cfg->max_version = NETIO_TLS_1_2; }

// --- the library's memory: first, as its functions can be replaced only before it is used -------

#if defined(NETIO_TLS_OPENSSL) && !defined(LIBRESSL_VERSION_NUMBER) &&                             \
    !defined(OPENSSL_IS_BORINGSSL) && !defined(OPENSSL_IS_AWSLC)
static long lib_allocs, lib_fail_at; // 0: none fails

static void *lib_malloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return ++lib_allocs == lib_fail_at ? NULL : malloc(size);
}

static void *lib_realloc(void *ptr, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return ++lib_allocs == lib_fail_at ? NULL : realloc(ptr, size);
}

static void lib_free(void *ptr, const char *file, int line)
{
    (void)file, (void)line;
    free(ptr);
}

static void no_chain(netio_tls_config *cfg) { cfg->insecure_no_chain = true; }

// Whatever fails inside the library, nobody is let in whom the checks that are on refuse.
TEST(tls_more, a_library_without_memory_checks_no_less)
{
    if (!CRYPTO_set_mem_functions(lib_malloc, lib_realloc, lib_free))
        SKIP("the library has allocated already");
    netio_tls_ctx *client = tls_client_ctx(no_chain), *server = tls_server_ctx("expired.pem", NULL);
    bool more = true;
    for (long n = 1; more; n += n < 100 ? 1 : 7) {
        tls_pair p = {0};
        CHECK_OK(netio_tls_server(&p.server, server));
        lib_allocs = 0;
        lib_fail_at = n;
        int err = netio_tls_client(&p.client, client, "example.test", NULL);
        if (err < 0) CHECK_ERR(NETIO_ENOMEM, err);
        for (bool moved = err == 0; moved;) {
            lib_fail_at = n;
            err = netio_tls_handshake(p.client);
            lib_fail_at = 0;
            CHECK(err < 0);
            moved = tls_move(p.client, p.server, 0) != 0;
            netio_tls_handshake(p.server);
            moved = tls_move(p.server, p.client, 0) != 0 || moved;
        }
        lib_fail_at = 0;
        more = lib_allocs >= n;
        tls_pair_close(&p);
    }
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}
#else
TEST(tls_more, a_library_without_memory_checks_no_less) { SKIP("not OpenSSL itself"); }
#endif

// --- contexts that on_sni gives -----------------------------------------------------------------

static netio_tls_ctx *given;

static netio_tls_ctx *give(void *user, const char *name)
{
    (void)user, (void)name;
    return given;
}

static void giving(netio_tls_config *cfg) { cfg->on_sni = give; }

static int key_of_all(void *user, char *identity, size_t cap, uint8_t *key, size_t key_cap)
{
    (void)user, (void)cap;
    CHECK(key_cap >= 32);
    if (!identity[0]) memcpy(identity, "sensor", 7);
    memset(key, 7, 32);
    return 32;
}

static void with_key(netio_tls_config *cfg) { cfg->psk = key_of_all; }

static void with_key_1_2(netio_tls_config *cfg)
{
    with_key(cfg);
    only_1_2(cfg);
}

static void giving_with_key(netio_tls_config *cfg)
{
    giving(cfg);
    with_key(cfg);
}

// The keys are those of the context in effect: none, if it has none.
TEST(tls_more, a_context_without_keys_may_replace_one_with_keys)
{
    for (int v = 0; v < 2; v++) {
        tls_pair p = {0};
        netio_tls_ctx *client = tls_client_ctx(v ? with_key_1_2 : with_key),
                      *server = tls_server_ctx("good.pem", giving_with_key);
        given = tls_server_ctx("good.pem", NULL);
        tls_pair_open(&p, client, server, "example.test");
        tls_handshake(&p);
        CHECK_ERR(NETIO_ETLS, p.client_err);
        CHECK_ERR(NETIO_ETLS, p.server_err);
        CHECK_STR("", info_of(p.server).psk_identity);
        tls_pair_close(&p);
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
        netio_tls_ctx_unref(given);
    }
}

TEST(tls_more, a_context_with_keys_may_replace_one_without)
{
    for (int v = 0; v < 2; v++) {
        tls_pair p = {0};
        netio_tls_ctx *client = tls_client_ctx(v ? with_key_1_2 : with_key),
                      *server = tls_server_ctx("good.pem", giving);
        given = tls_server_ctx("good.pem", with_key);
        tls_pair_open(&p, client, server, "example.test");
        tls_handshake_done(&p);
        CHECK_STR("sensor", info_of(p.server).psk_identity);
        CHECK_STR("sensor", info_of(p.client).psk_identity);
        tls_pair_close(&p);
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(server);
        netio_tls_ctx_unref(given);
    }
}

static int64_t at_time;

static void wants_client_at(netio_tls_config *cfg)
{
    cfg->client_cert = NETIO_TLS_CLIENT_CERT_REQUIRED;
    cfg->ca_file = tls_file("ca.crt");
    cfg->verify_time = at_time;
}

static void giving_wants_client_at(netio_tls_config *cfg)
{
    wants_client_at(cfg);
    giving(cfg);
}

static void shows_expired(netio_tls_config *cfg)
{
    cfg->cert_file = tls_file("client_expired.pem");
}

enum { YEAR_2020 = 1600000000 }; // client_expired.pem is good from 2020 to 2021

// client_expired.pem is good in 2020 only: the time that counts is that of the context in effect.
TEST(tls_more, each_context_has_its_own_time)
{
    netio_tls_ctx *client = tls_client_ctx(shows_expired);
    for (int old = 0; old < 2; old++) {
        tls_pair p = {0};
        at_time = old ? 0 : YEAR_2020;
        netio_tls_ctx *server = tls_server_ctx("good.pem", giving_wants_client_at);
        at_time = old ? YEAR_2020 : 0;
        given = tls_server_ctx("good.pem", wants_client_at);
        tls_pair_open(&p, client, server, "example.test");
        tls_handshake(&p);
        CHECK_ERR(old ? 0 : NETIO_ETLS, p.server_err);
        if (!old) CHECK_EQ(NETIO_TLS_EXPIRED, error_of(p.server).verify);
        tls_pair_close(&p);
        netio_tls_ctx_unref(server);
        netio_tls_ctx_unref(given);
    }
    netio_tls_ctx_unref(client);
}

// --- sessions -----------------------------------------------------------------------------------

static const uint8_t ticket_key[1][32] = {{1, 2, 3}};
static int shared_version;

static void shares_at(netio_tls_config *cfg)
{
    wants_client_at(cfg);
    cfg->max_version = shared_version;
    cfg->ticket_keys = ticket_key;
    cfg->ticket_key_count = 1;
}

// A handshake, and the tickets read.
static void meet(tls_pair *p, netio_tls_ctx *client, netio_tls_ctx *server)
{
    char byte_read[1];
    memset(p, 0, sizeof *p);
    tls_pair_open(p, client, server, "example.test");
    tls_handshake(p);
    netio_tls_read(p->client, byte_read, 1);
}

// Two servers that share their keys; by the clock of the second the client's certificate is over.
TEST(tls_more, a_client_whose_certificate_has_expired_is_not_resumed)
{
    for (int v = 0; v < 2; v++) {
        tls_pair p;
        shared_version = v ? NETIO_TLS_1_3 : NETIO_TLS_1_2;
        at_time = YEAR_2020;
        netio_tls_ctx *first = tls_server_ctx("good.pem", shares_at);
        netio_tls_ctx *again = tls_server_ctx("good.pem", shares_at);
        at_time = 0;
        netio_tls_ctx *later = tls_server_ctx("good.pem", shares_at);
        netio_tls_ctx *client = tls_client_ctx(shows_expired);
        meet(&p, client, first);
        CHECK_OK(p.server_err);
        tls_pair_close(&p);
        meet(&p, client, again);
        CHECK_OK(p.server_err);
        if (!tls_is("LibreSSL")) CHECK(info_of(p.server).resumed);
        tls_pair_close(&p);
        meet(&p, client, later);
        CHECK_ERR(NETIO_ETLS, p.server_err);
        CHECK_EQ(NETIO_TLS_EXPIRED, error_of(p.server).verify);
        CHECK(strstr(error_of(p.server).text, "expired on 2021-01-01"));
        tls_pair_close(&p);
        netio_tls_ctx_unref(client);
        netio_tls_ctx_unref(first);
        netio_tls_ctx_unref(again);
        netio_tls_ctx_unref(later);
    }
}

static int asked;

static bool only_once(void *user, const netio_tls_info *peer)
{
    (void)user;
    return ++asked == 1 && peer->chain_len > 0;
}

static void asking_once(netio_tls_config *cfg) { cfg->on_verify = only_once; }

// After the library's own part of the handshake no alert can be sent, but a clean end can.
TEST(tls_more, who_is_refused_when_resuming_gets_a_clean_end)
{
    tls_pair p;
    char buf[8];
    asked = 0;
    netio_tls_ctx *client = tls_client_ctx(asking_once), *server = tls_server_ctx("good.pem", NULL);
    meet(&p, client, server);
    CHECK_OK(p.client_err);
    tls_pair_close(&p);
    meet(&p, client, server);
    CHECK_ERR(NETIO_ETLS, p.client_err);
    CHECK_EQ(NETIO_TLS_REFUSED, error_of(p.client).verify);
    bool resumed = error_of(p.client).alert_out < 0; // LibreSSL does not, with TLS 1.3
    CHECK_ERR(NETIO_ETLS, netio_tls_write(p.client, "x", 1));
    netio_tls_feed_end(p.server);
    CHECK_ERR(resumed ? NETIO_EOF : NETIO_ETLS, netio_tls_read(p.server, buf, sizeof buf));
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- what is told, and lent ---------------------------------------------------------------------

static const char *const h2[] = {"h2"};

static void speaks_h2(netio_tls_config *cfg)
{
    cfg->alpn = h2;
    cfg->alpn_count = 1;
}

TEST(tls_more, what_info_shows_stays_where_it_is)
{
    tls_pair p = {0};
    netio_tls_ctx *client = tls_client_ctx(speaks_h2),
                  *server = tls_server_ctx("good.pem", speaks_h2);
    tls_pair_open(&p, client, server, "example.test");
    netio_tls_info before = info_of(p.client);
    CHECK_STR("", before.alpn);
    tls_handshake_done(&p);
    netio_tls_info one = info_of(p.server), two = info_of(p.server), own = info_of(p.client);
    CHECK_STR("h2", one.alpn);
    CHECK(one.alpn == two.alpn);
    CHECK(before.alpn == own.alpn);
    CHECK_EQ(1, own.chain_len);
    CHECK(info_of(p.client).chain == own.chain);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

static void no_name(netio_tls_config *cfg) { cfg->insecure_no_name = true; }

TEST(tls_more, a_waived_check_does_not_lend_its_words_to_another)
{
    static const struct {
        const char *pem;
        unsigned bit;
    } rows[] = {{"constraint.pem", NETIO_TLS_CONSTRAINT}, {"bad_sig.pem", NETIO_TLS_BAD_SIG}};
    netio_tls_ctx *client = tls_client_ctx(no_name);
    for (int i = 0; i < 2; i++) {
        tls_pair p = {0};
        netio_tls_ctx *server = tls_server_ctx(rows[i].pem, NULL);
        tls_pair_open(&p, client, server, "wrong.test");
        tls_handshake(&p);
        CHECK_ERR(NETIO_ETLS, p.client_err);
        CHECK_EQ(rows[i].bit, error_of(p.client).verify);
        CHECK(strstr(error_of(p.client).text, "ostname") == NULL);
        tls_pair_close(&p);
        netio_tls_ctx_unref(server);
    }
    netio_tls_ctx_unref(client);
}

// --- settings -----------------------------------------------------------------------------------

static int floor_version;

static void allows_old(netio_tls_config *cfg)
{
    cfg->insecure_allow_tls_1_0 = true;
    cfg->min_version = floor_version;
}

static void old_cipher(netio_tls_config *cfg)
{
    only_1_2(cfg);
    cfg->ciphers = "AES128-SHA"; // no forward secrecy, no AEAD
}

// The ciphers of old versions come with them, not alone.
TEST(tls_more, allowing_tls_1_0_changes_nothing_until_the_floor_is_lowered)
{
    netio_tls_ctx *client = tls_client_ctx(old_cipher);
    for (int low = 0; low < 2; low++) {
        tls_pair p = {0};
        floor_version = low ? NETIO_TLS_1_0 : 0;
        netio_tls_ctx *server = tls_server_ctx("rsa.pem", allows_old);
        tls_pair_open(&p, client, server, "example.test");
        tls_handshake(&p);
        CHECK_ERR(low ? 0 : NETIO_ETLS, p.server_err);
        tls_pair_close(&p);
        netio_tls_ctx_unref(server);
    }
    netio_tls_ctx_unref(client);
}

// What is handed out to everybody is looked at first: it could be the key.
TEST(tls_more, a_staple_must_be_an_ocsp_answer)
{
    static const char *const rows[] = {"key.pem", "key.der", "good.der"};
    for (int i = 0; i < 3; i++) {
        netio_tls_config cfg = {0};
        netio_tls_error why;
        netio_tls_ctx *ctx;
        cfg.cert_file = tls_file("good.pem");
        cfg.staple_file = tls_file(rows[i]);
        CHECK_ERR(NETIO_ETLS, netio_tls_ctx_create(&ctx, &cfg, &why));
        CHECK_EQ(NETIO_TLS_CONFIG, why.code);
        CHECK(why.text[0]);
    }
}

// --- streams ------------------------------------------------------------------------------------

#if !defined(NETIO_NO_STREAM) && !defined(NETIO_NO_FRAME) && !defined(NETIO_NO_LOOP)
typedef struct server_end {
    netio_stream st;
    netio_tls_ctx *ctx;
    int err;
    char got[8];
} server_end;

static void serve_one(void *arg)
{
    server_end *s = (server_end *)arg;
    netio_tls_error why;
    s->err = netio_tls_wrap(&s->st, &s->st, NULL, s->ctx, &why, NULL, 10000);
    if (s->err == 0) s->err = netio_stream_recv_exact(&s->st, s->got, 5, NULL, 10000);
    netio_stream_close(&s->st);
}

TEST(tls_more, a_stream_is_wrapped_in_place)
{
    netio_socket client_socket, server_socket;
    netio_tls_ctx *client = tls_client_ctx(NULL);
    netio_tls_error why;
    test_thread thread;
    server_end other = {0};
    test_tcp_pair(&client_socket, &server_socket);
    other.st = netio_stream_from_socket(server_socket);
    other.ctx = tls_server_ctx("good.pem", NULL);
    test_thread_start(&thread, serve_one, &other);
    netio_stream st = netio_stream_from_socket(client_socket);
    CHECK_OK(netio_tls_wrap(&st, &st, "example.test", client, &why, NULL, 10000));
    CHECK(netio_tls_stream_engine(&st) != NULL);
    CHECK_OK(netio_stream_send_all(&st, "hello", 5, NULL, 10000));
    netio_stream_close(&st);
    test_thread_join(&thread);
    CHECK_OK(other.err);
    CHECK_MEM("hello", other.got, 5);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(other.ctx);
}
// --- on the loop, with clients made by hand so that what they send together is known -------------

enum { HANDS = 8 };

typedef struct hand {
    netio_stream st;
    netio_tls *t;
    bool done; // its last words of the handshake are still with it
} hand;

typedef struct seen {
    int opened, closed, refused, ended;
    size_t bytes;
    bool no_open; // on_close came without on_open
} seen;

static seen loop_seen;

static void seen_open(netio_conn c)
{
    loop_seen.opened++;
    netio_conn_set_user(c, &loop_seen.opened);
}

static void seen_data(netio_conn c, const void *data, size_t len)
{
    (void)c, (void)data;
    loop_seen.bytes += len;
}

static void seen_eof(netio_conn c)
{
    loop_seen.ended++;
    netio_conn_close(c);
}

static void seen_close(netio_conn c, int err)
{
    (void)err;
    loop_seen.closed++;
    if (netio_conn_user(c) != &loop_seen.opened) loop_seen.no_open = true;
}

static void seen_refused(void *user, const netio_addr *peer, const netio_error *why)
{
    (void)user, (void)peer, (void)why;
    loop_seen.refused++;
}

static const netio_handler seen_handler = {
    .on_open = seen_open, .on_data = seen_data, .on_eof = seen_eof, .on_close = seen_close};

static netio_loop *listen_tls(netio_tls_ctx *server, char address[NETIO_ADDR_TEXT])
{
    netio_listener_opts opts = {0};
    netio_loop_opts loop_opts = {0};
    netio_loop *loop;
    netio_listener l;
    netio_addr a;
    memset(&loop_seen, 0, sizeof loop_seen);
    loop_opts.backend = test_backend();
    CHECK_OK(netio_loop_create(&loop, &loop_opts));
    opts.conn.filter = netio_tls_filter(server);
    opts.on_refused = seen_refused;
    CHECK_OK(netio_listener_open(&l, loop, "127.0.0.1:0", &seen_handler, &opts));
    CHECK_OK(netio_listener_addr(l, &a));
    netio_addr_format(&a, address, NETIO_ADDR_TEXT);
    return loop;
}

static hand hand_open(const char *address, netio_tls_ctx *client)
{
    hand h = {0};
    netio_socket s;
    CHECK_OK(netio_connect(&s, address, NULL, 10000));
    h.st = netio_stream_from_socket(s);
    CHECK_OK(netio_tls_client(&h.t, client, "example.test", NULL));
    return h;
}

static void hand_close(hand *h)
{
    netio_tls_destroy(h->t);
    netio_stream_close(&h->st);
}

// What the engine has to say, and `more` behind it, in one send.
static void hand_say(hand *h, const char *more, size_t more_len)
{
    char all[8192];
    netio_buf out = netio_tls_out(h->t);
    CHECK(out.len + more_len <= sizeof all);
    if (out.len) memcpy(all, out.data, out.len);
    if (more_len) memcpy(all + out.len, more, more_len);
    if (out.len + more_len)
        CHECK_OK(netio_stream_send_all(&h->st, all, out.len + more_len, NULL, 10000));
    netio_tls_out_drop(h->t, out.len);
}

// The handshake, up to the client's last words, which are not sent.
static void hands_shake(netio_loop *loop, hand *hands, int count)
{
    char buf[8192];
    uint64_t begin = test_ms();
    for (int done = 0; done < count;) {
        CHECK(test_ms() - begin < 20000);
        done = 0;
        for (int i = 0; i < count; i++) {
            hand *h = &hands[i];
            ptrdiff_t n = h->done ? 0 : netio_stream_recv(&h->st, buf, sizeof buf, 0);
            if (n > 0) CHECK_OK(netio_tls_feed(h->t, buf, (size_t)n));
            h->done = h->done || netio_tls_handshake(h->t) == 0;
            if (!h->done) hand_say(h, NULL, 0);
            done += h->done;
        }
        CHECK(netio_loop_run_once(loop, 10) >= 0);
    }
}

static void run_until_gone(netio_loop *loop, int count)
{
    uint64_t begin = test_ms();
    while (loop_seen.closed + loop_seen.refused < count) {
        CHECK(test_ms() - begin < 20000);
        CHECK(netio_loop_run_once(loop, 10) >= 0);
    }
}

// What fails before on_open could run is refused: a handler that takes its memory in on_open and
// gives it back in on_close never sees it.
TEST(tls_more, a_bad_record_behind_the_handshake_closes_nothing_that_was_not_opened)
{
    static const char *const rows[] = {"GARBAGE!!!", "\x15\x03\x03\0\x02\x02\x28"};
    static const size_t len[] = {10, 7};
    char address[NETIO_ADDR_TEXT];
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    for (int i = 0; i < 2; i++) {
        netio_stats stats;
        netio_loop *loop = listen_tls(server, address);
        hand h = hand_open(address, client);
        hands_shake(loop, &h, 1);
        hand_say(&h, rows[i], len[i]);
        run_until_gone(loop, 1);
        CHECK(!loop_seen.no_open);
        CHECK_EQ(loop_seen.opened, loop_seen.closed);
        netio_loop_stats(loop, &stats);
        CHECK_EQ((long long)stats.opened, (long long)stats.closed);
        hand_close(&h);
        netio_loop_destroy(loop);
    }
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// Handshakes are made one after the other: who has said all and gone meanwhile is served all the
// same.
TEST(tls_more, who_leaves_while_handshakes_wait_is_still_heard)
{
    char address[NETIO_ADDR_TEXT];
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    netio_loop *loop = listen_tls(server, address);
    hand hands[HANDS];
    for (int i = 0; i < HANDS; i++) hands[i] = hand_open(address, client);
    hands_shake(loop, hands, HANDS);
    for (int i = 0; i < HANDS; i++) {
        CHECK_EQ(10, netio_tls_write(hands[i].t, "0123456789", 10));
        CHECK_OK(netio_tls_shutdown(hands[i].t));
        hand_say(&hands[i], NULL, 0);
        CHECK_OK(netio_stream_shutdown(&hands[i].st, 0));
    }
    run_until_gone(loop, HANDS);
    CHECK_EQ(0, loop_seen.refused);
    CHECK_EQ(HANDS, loop_seen.opened);
    CHECK_EQ(HANDS, loop_seen.ended);
    CHECK_EQ(10 * HANDS, loop_seen.bytes);
    for (int i = 0; i < HANDS; i++) hand_close(&hands[i]);
    netio_loop_destroy(loop);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}
#else
TEST(tls_more, a_stream_is_wrapped_in_place) { SKIP("built without streams or loops"); }
TEST(tls_more, a_bad_record_behind_the_handshake_closes_nothing_that_was_not_opened)
{
    SKIP("built without streams or loops");
}
TEST(tls_more, who_leaves_while_handshakes_wait_is_still_heard)
{
    SKIP("built without streams or loops");
}
#endif

// clang-format off
TEST_MAIN("tls_more",
    T(tls_more, a_library_without_memory_checks_no_less),
    T(tls_more, a_context_without_keys_may_replace_one_with_keys),
    T(tls_more, a_context_with_keys_may_replace_one_without),
    T(tls_more, each_context_has_its_own_time),
    T(tls_more, a_client_whose_certificate_has_expired_is_not_resumed),
    T(tls_more, who_is_refused_when_resuming_gets_a_clean_end),
    T(tls_more, what_info_shows_stays_where_it_is),
    T(tls_more, a_waived_check_does_not_lend_its_words_to_another),
    T(tls_more, allowing_tls_1_0_changes_nothing_until_the_floor_is_lowered),
    T(tls_more, a_staple_must_be_an_ocsp_answer),
    T(tls_more, a_stream_is_wrapped_in_place),
    T(tls_more, a_bad_record_behind_the_handshake_closes_nothing_that_was_not_opened),
    T(tls_more, who_leaves_while_handshakes_wait_is_still_heard))
