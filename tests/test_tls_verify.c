// Which certificates are accepted, for which host, and what is said about the others. The
// expectation is one for every backend: libraries differ in what they let pass.
#include "tls/tls_test.h"

// --- the matrix ---------------------------------------------------------------------------------

typedef struct matrix_row {
    const char *pem, *host;
    unsigned want; // bits of the refusal; 0: accepted
    const char *text;
} matrix_row;

// clang-format off
static const matrix_row matrix[] = {
    // Accepted.
    {"good.pem",        "example.test",        0, ""},
    {"good.pem",        "EXAMPLE.Test",        0, ""},
    {"good.pem",        "example.test.",       0, ""},
    {"good.pem",        "www.example.test",    0, ""},
    {"good.pem",        "127.0.0.1",           0, ""},
    {"good.pem",        "::1",                 0, ""},
    {"good.pem",        "[::1]",               0, ""},
    {"good.pem",        "::1%1",               0, ""},
    {"rsa.pem",         "example.test",        0, ""},
    {"ed25519.pem",     "example.test",        0, ""},
    {"chain.pem",       "example.test",        0, ""},
    {"no_eku.pem",      "example.test",        0, ""},
    {"wild.pem",        "a.example.test",      0, ""},
    {"wild.pem",        "xn--bcher-kva.example.test", 0, ""},
    {"ip4.pem",         "127.0.0.1",           0, ""},
    {"ip6.pem",         "::1",                 0, ""},
    {"ip6.pem",         "0:0:0:0:0:0:0:1",     0, ""},
    {"large.pem",       "example.test",        0, ""},

    // The name.
    {"good.pem",        "other.test",          NETIO_TLS_NAME, "is for example.test, www.ex"},
    {"good.pem",        "a.example.test",      NETIO_TLS_NAME, "not for a.example.test"},
    {"good.pem",        "127.0.0.2",           NETIO_TLS_NAME, "not for 127.0.0.2"},
    {"good.pem",        "::2",                 NETIO_TLS_NAME, "not for ::2"},
    {"other_name.pem",  "example.test",        NETIO_TLS_NAME, "is for other.test"},
    {"cn_only.pem",     "example.test",        NETIO_TLS_NAME, "for no name at all"},
    {"wild.pem",        "example.test",        NETIO_TLS_NAME, ""},
    {"wild.pem",        "a.b.example.test",    NETIO_TLS_NAME, ""},
    {"wild_tld.pem",    "example.test",        NETIO_TLS_NAME, ""},
    {"wild_all.pem",    "example.test",        NETIO_TLS_NAME, ""},
    {"wild_all.pem",    "localhost",           NETIO_TLS_NAME, ""},
    {"wild_part.pem",   "example.test",        NETIO_TLS_NAME, ""},
    {"wild_middle.pem", "foo.example.test",    NETIO_TLS_NAME, ""},
    {"wild_two.pem",    "a.b.example.test",    NETIO_TLS_NAME, ""},
    {"dot.pem",         "example.test",        NETIO_TLS_NAME, ""},
    {"nul.pem",         "example.test",        NETIO_TLS_NAME, "example.test\\00.evil.test"},
    {"ip_as_dns.pem",   "127.0.0.1",           NETIO_TLS_NAME, ""},
    {"ip_as_cn.pem",    "127.0.0.1",           NETIO_TLS_NAME, ""},
    {"ip_other.pem",    "127.0.0.1",           NETIO_TLS_NAME, "is for 127.0.0.2"},
    {"ip4.pem",         "::ffff:127.0.0.1",    NETIO_TLS_NAME, ""},

    // The dates.
    {"expired.pem",     "example.test",        NETIO_TLS_EXPIRED, "expired on 2021-01-01 (de"},
    {"old_chain.pem",   "example.test",        NETIO_TLS_EXPIRED, "old expired on 2021-01-01 (de"},
    {"not_yet.pem",     "example.test",        NETIO_TLS_NOT_YET, "not valid before 2048-01-01"},

    // The issuer.
    {"self.pem",        "example.test",        NETIO_TLS_UNTRUSTED, "is self-signed"},
    {"untrusted.pem",   "example.test",        NETIO_TLS_UNTRUSTED, "issuer Other_Root is unknown"},
    {"no_inter.pem",    "example.test",        NETIO_TLS_UNTRUSTED, "left out an intermediate"},
    {"bad_sig.pem",     "example.test",        NETIO_TLS_BAD_SIG, ""},
    {"by_leaf.pem",     "example.test",        NETIO_TLS_PURPOSE, "is no CA's"},
    {"path_length.pem", "example.test",        NETIO_TLS_CONSTRAINT, ""},
    {"constraint.pem",  "example.test",        NETIO_TLS_CONSTRAINT, ""},

    // What it is for, and its strength.
    {"client_eku.pem",  "example.test",        NETIO_TLS_PURPOSE, "not for TLS servers"},
    {"any_eku.pem",     "example.test",        NETIO_TLS_PURPOSE, ""},
    {"sha1.pem",        "example.test",        NETIO_TLS_WEAK, "SHA-1"},
    {"rsa1024.pem",     "example.test",        NETIO_TLS_WEAK, "1024 bits is too short"},

    // Several at once: all are told.
    {"expired.pem",     "other.test",          NETIO_TLS_EXPIRED | NETIO_TLS_NAME, "expired"},
    {"self.pem",        "other.test",          NETIO_TLS_UNTRUSTED | NETIO_TLS_NAME, "self-signed"},
};
// clang-format on

// A server that would hand out anything.
static void careless(netio_tls_config *cfg)
{
    cfg->insecure_allow_tls_1_0 = true;
    cfg->min_version = NETIO_TLS_1_0;
}

static void careless_1_2(netio_tls_config *cfg)
{
    careless(cfg);
    cfg->max_version = NETIO_TLS_1_2;
}

static void check_row(const matrix_row *row, netio_tls_ctx *client, tls_change server_how)
{
    netio_tls_ctx *server = tls_server_ctx(row->pem, server_how);
    netio_tls_error e;
    tls_pair p = {0};
    tls_pair_open(&p, client, server, row->host);
    tls_handshake(&p);
    memset(&e, 0, sizeof e);
    if (netio_tls_get_error(p.client, &e) < 0) e.text[0] = 0;
    if (e.verify != row->want || !!row->want != (p.client_err == NETIO_ETLS) ||
        !!row->want != !!p.client_err || !strstr(e.text, row->text))
        test_fail(__FILE__, __LINE__, "%s for %s: want %x \"%s\", got %s, %x \"%s\"", row->pem,
                  row->host, row->want, row->text, netio_errname(p.client_err), e.verify, e.text);
    if (row->want) {
        CHECK_EQ(NETIO_TLS_VERIFY, e.code);
        CHECK(e.alert_out >= 0);
        CHECK_ERR(NETIO_ETLS, netio_tls_write(p.client, "x", 1)); // no byte to the wrong peer
        CHECK_ERR(NETIO_ETLS, p.server_err);                      // and it heard why
    }
    tls_pair_close(&p);
    netio_tls_ctx_unref(server);
}

static void check_matrix(tls_change client_how, tls_change server_how)
{
    netio_tls_ctx *client = tls_client_ctx(client_how);
    for (size_t i = 0; i < sizeof matrix / sizeof matrix[0]; i++)
        check_row(&matrix[i], client, server_how);
    netio_tls_ctx_unref(client);
}

TEST(tls_verify, matrix_with_tls_1_3) { check_matrix(NULL, careless); }

TEST(tls_verify, matrix_with_tls_1_2) { check_matrix(NULL, careless_1_2); }

// --- each insecure_ field turns off its own check and no other ----------------------------------

static void no_chain(netio_tls_config *cfg) { cfg->insecure_no_chain = true; }
static void no_name(netio_tls_config *cfg) { cfg->insecure_no_name = true; }
static void no_time(netio_tls_config *cfg) { cfg->insecure_no_time = true; }

static void check_waiver(tls_change how, unsigned off)
{
    netio_tls_ctx *client = tls_client_ctx(how);
    for (size_t i = 0; i < sizeof matrix / sizeof matrix[0]; i++) {
        matrix_row row = matrix[i];
        row.text = "";
        row.want &= ~off;
        // A key that signed without being allowed to is no issuer, so nothing above counts either.
        check_row(&row, client, careless);
    }
    netio_tls_ctx_unref(client);
}

TEST(tls_verify, insecure_no_chain_leaves_all_else_on)
{
    check_waiver(no_chain, NETIO_TLS_UNTRUSTED | NETIO_TLS_BAD_SIG | NETIO_TLS_CONSTRAINT);
}

TEST(tls_verify, insecure_no_name_leaves_all_else_on) { check_waiver(no_name, NETIO_TLS_NAME); }

TEST(tls_verify, insecure_no_time_leaves_all_else_on)
{
    check_waiver(no_time, NETIO_TLS_EXPIRED | NETIO_TLS_NOT_YET);
}

static void in_2020(netio_tls_config *cfg) { cfg->verify_time = 1590000000; }
static void in_2048(netio_tls_config *cfg) { cfg->verify_time = 2470000000; }

TEST(tls_verify, the_time_can_be_set)
{
    static const matrix_row then[] = {
        {"expired.pem", "example.test", 0, ""},
        {"old_chain.pem", "example.test", NETIO_TLS_NOT_YET, ""},
        {"good.pem", "example.test", NETIO_TLS_NOT_YET, "2024-01-01"}};
    static const matrix_row later[] = {{"not_yet.pem", "example.test", 0, ""},
                                       {"good.pem", "example.test", 0, ""}};
    netio_tls_ctx *client = tls_client_ctx(in_2020);
    for (int i = 0; i < 3; i++) check_row(&then[i], client, NULL);
    netio_tls_ctx_unref(client);
    client = tls_client_ctx(in_2048);
    for (int i = 0; i < 2; i++) check_row(&later[i], client, NULL);
    netio_tls_ctx_unref(client);
}

// --- trust --------------------------------------------------------------------------------------

static void trust_both(netio_tls_config *cfg) { cfg->ca_file = tls_file("both.pem"); }
static void trust_der(netio_tls_config *cfg) { cfg->ca_file = tls_file("ca.der"); }
static void trust_self(netio_tls_config *cfg) { cfg->ca_file = tls_file("self.crt"); }

static void trust_dir(netio_tls_config *cfg)
{
    cfg->ca_file = NULL;
    cfg->ca_dir = tls_file("dir");
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

static char *memory;
static size_t memory_len;

static void trust_memory(netio_tls_config *cfg)
{
    cfg->ca_file = NULL;
    cfg->ca = memory;
    cfg->ca_len = memory_len;
}

static void trust_other(netio_tls_config *cfg) { cfg->ca_file = tls_file("other.crt"); }

TEST(tls_verify, roots_come_from_file_directory_and_memory)
{
    static const tls_change hows[] = {trust_both, trust_der, trust_dir, trust_memory};
    netio_tls_ctx *good = tls_server_ctx("good.pem", NULL);
    netio_tls_ctx *other = tls_server_ctx("untrusted.pem", NULL);
    netio_tls_ctx *self = tls_server_ctx("self.pem", NULL);
    memory = load("ca.crt", &memory_len);
    memory_len = 0; // a C string
    for (int i = 0; i < 4; i++) {
        netio_tls_ctx *client = tls_client_ctx(hows[i]);
        tls_expect_ok(client, good, "example.test");
        if (hows[i] == trust_both || hows[i] == trust_dir)
            tls_expect_ok(client, other, "example.test");
        else tls_expect_refused(client, other, "example.test", NETIO_TLS_UNTRUSTED);
        netio_tls_ctx_unref(client);
    }
    netio_tls_ctx *client = tls_client_ctx(trust_other);
    tls_expect_refused(client, good, "example.test", NETIO_TLS_UNTRUSTED);
    netio_tls_ctx_unref(client);
    client = tls_client_ctx(trust_self); // a certificate that is trusted by itself
    tls_expect_ok(client, self, "example.test");
    tls_expect_refused(client, good, "example.test", NETIO_TLS_UNTRUSTED);
    netio_tls_ctx_unref(client);
    free(memory);
    netio_tls_ctx_unref(good);
    netio_tls_ctx_unref(other);
    netio_tls_ctx_unref(self);
}

static void trust_old_root(netio_tls_config *cfg) { cfg->ca_file = tls_file("old_root.crt"); }

TEST(tls_verify, a_roots_own_signature_may_be_sha1)
{
    netio_tls_ctx *server = tls_server_ctx("root_sha1.pem", NULL);
    netio_tls_ctx *client = tls_client_ctx(trust_old_root);
    tls_expect_ok(client, server, "example.test");
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_verify, the_systems_roots_do_not_know_ours)
{
    netio_tls_config cfg = {0};
    netio_tls_ctx *client, *server = tls_server_ctx("good.pem", NULL);
    netio_tls_error why;
    int err = netio_tls_ctx_create(&client, &cfg, &why);
    if (err == NETIO_ETLS && strstr(why.text, "no trusted CA")) {
        netio_tls_ctx_unref(server);
        SKIP("this machine has no CA certificates");
    }
    CHECK_OK(err);
    tls_expect_refused(client, server, "example.test", NETIO_TLS_UNTRUSTED);
    netio_tls_ctx_unref(client);
    cfg.ca_file = tls_file("ca.crt");
    cfg.add_system_roots = true;
    CHECK_OK(netio_tls_ctx_create(&client, &cfg, NULL));
    tls_expect_ok(client, server, "example.test");
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_verify, bad_roots_are_refused_when_they_are_given)
{
    static const char *const rows[][2] = {{"missing.pem", "no such file"},
                                          {"empty.pem", "is empty"},
                                          {"key.pem", "no certificate is in"},
                                          {"broken.pem", "malformed"},
                                          {"index.txt", "malformed"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_tls_config cfg = {0};
        netio_tls_ctx *ctx;
        netio_tls_error why;
        cfg.ca_file = tls_file(rows[i][0]);
        CHECK_ERR(NETIO_ETLS, netio_tls_ctx_create(&ctx, &cfg, &why));
        CHECK_EQ(NETIO_TLS_CONFIG, why.code);
        if (!strstr(why.text, rows[i][1])) test_fail(__FILE__, __LINE__, "%s", why.text);
    }
    netio_tls_config cfg = {0};
    netio_tls_ctx *ctx;
    cfg.ca_dir = tls_file("empty");
    CHECK_ERR(NETIO_ETLS, netio_tls_ctx_create(&ctx, &cfg, NULL));
    cfg.ca_dir = NULL;
    cfg.ca = "";
    CHECK_ERR(NETIO_ETLS, netio_tls_ctx_create(&ctx, &cfg, NULL));
}

// --- names that cannot be asked for -------------------------------------------------------------

TEST(tls_verify, only_what_a_certificate_can_be_for_is_dialed)
{
    static const char *const bad[] = {"",           "*.example.test", "example test",
                                      "a..test",    ".test",          "ex\xc3\xa4mple.test",
                                      "1.2.3",      "300.1.1.1",      "127.0.0.1/8",
                                      "a.test:443", "example.test..", ".",
                                      "a\nb",       "[::1",           "::1]"};
    char longest[256], *label = longest;
    netio_tls_ctx *client = tls_client_ctx(NULL);
    netio_tls *t;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (netio_tls_client(&t, client, bad[i], NULL) != NETIO_EINVAL)
            test_fail(__FILE__, __LINE__, "\"%s\" was taken", bad[i]);
    CHECK_ERR(NETIO_EINVAL, netio_tls_client(&t, client, NULL, NULL));
    for (int i = 0; i < 4; i++, label += 64)
        memcpy(label,
               "a2345678901234567890123456789012345678"
               "9012345678901234567890123.",
               64);
    longest[254] = 0;
    CHECK_ERR(NETIO_EINVAL, netio_tls_client(&t, client, longest, NULL));
    longest[253] = 0;
    CHECK_OK(netio_tls_client(&t, client, longest, NULL));
    netio_tls_destroy(t);
    netio_tls_ctx_unref(client);
    client = tls_client_ctx(no_name);
    CHECK_OK(netio_tls_client(&t, client, NULL, NULL));
    netio_tls_destroy(t);
    netio_tls_ctx_unref(client);
}

// --- pins ---------------------------------------------------------------------------------------

static uint8_t pins[2][32];

static void pinned(netio_tls_config *cfg)
{
    cfg->pins = (const uint8_t(*)[32])pins;
    cfg->pin_count = 2;
}

static void pinned_no_chain(netio_tls_config *cfg)
{
    pinned(cfg);
    cfg->insecure_no_chain = true;
}

// The key's digest of the certificate at `place` of the chain that `pem` is served with.
static void pin_of(uint8_t out[32], const char *pem, size_t place)
{
    netio_tls_ctx *client = tls_client_ctx(no_chain), *server = tls_server_ctx(pem, NULL);
    netio_tls_info info;
    tls_pair p = {0};
    tls_pair_open(&p, client, server, "example.test");
    tls_handshake_done(&p);
    CHECK_OK(netio_tls_get_info(p.client, &info));
    CHECK(place < info.chain_len);
    memcpy(out, info.chain[place].spki_sha256, 32);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_verify, a_pin_must_be_in_the_chain)
{
    netio_tls_ctx *server = tls_server_ctx("chain.pem", NULL), *client;
    memset(pins, 7, sizeof pins);
    client = tls_client_ctx(pinned);
    tls_expect_refused(client, server, "example.test", NETIO_TLS_PIN);
    netio_tls_ctx_unref(client);
    for (size_t place = 0; place < 2; place++) {
        pin_of(pins[1], "chain.pem", place);
        client = tls_client_ctx(pinned);
        tls_expect_ok(client, server, "example.test");
        tls_expect_refused(client, server, "other.test", NETIO_TLS_NAME); // a pin replaces nothing
        netio_tls_ctx_unref(client);
    }
    netio_tls_ctx_unref(server);
}

TEST(tls_verify, without_chain_only_the_leaf_can_be_pinned)
{
    netio_tls_ctx *server = tls_server_ctx("chain.pem", NULL);
    memset(pins, 7, sizeof pins);
    pin_of(pins[0], "chain.pem", 1);
    // Anybody can send along a certificate that is pinned: here as no CA that is trusted.
    netio_tls_config cfg = {0};
    netio_tls_ctx *client;
    cfg.ca_file = tls_file("other.crt");
    pinned_no_chain(&cfg);
    CHECK_OK(netio_tls_ctx_create(&client, &cfg, NULL));
    tls_expect_refused(client, server, "example.test", NETIO_TLS_PIN);
    netio_tls_ctx_unref(client);
    pin_of(pins[0], "chain.pem", 0);
    CHECK_OK(netio_tls_ctx_create(&client, &cfg, NULL));
    tls_expect_ok(client, server, "example.test");
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- on_verify, and what it sees ----------------------------------------------------------------

static struct {
    int calls;
    bool answer;
    char subject[100], issuer[100], name[100];
    size_t chain_len, name_count, serial_len;
    int64_t not_before, not_after;
    uint8_t sha256[32];
} seen;

static bool on_verify(void *user, const netio_tls_info *peer)
{
    const netio_tls_cert *c = &peer->chain[0];
    CHECK(user == &seen);
    seen.calls++;
    seen.chain_len = peer->chain_len;
    snprintf(seen.subject, sizeof seen.subject, "%s", c->subject);
    snprintf(seen.issuer, sizeof seen.issuer, "%s", c->issuer);
    snprintf(seen.name, sizeof seen.name, "%s", c->name_count ? c->names[c->name_count - 1] : "");
    seen.name_count = c->name_count;
    seen.serial_len = c->serial.len;
    seen.not_before = c->not_before;
    seen.not_after = c->not_after;
    memcpy(seen.sha256, c->sha256, 32);
    return seen.answer;
}

static void asking(netio_tls_config *cfg)
{
    cfg->user = &seen;
    cfg->on_verify = on_verify;
}

TEST(tls_verify, on_verify_sees_the_chain_and_can_refuse)
{
    netio_tls_ctx *server = tls_server_ctx("chain.pem", NULL), *client = tls_client_ctx(asking);
    memset(&seen, 0, sizeof seen);
    tls_expect_refused(client, server, "example.test", NETIO_TLS_REFUSED);
    CHECK_EQ(1, seen.calls);
    seen.answer = true;
    tls_expect_ok(client, server, "example.test");
    CHECK_EQ(2, seen.calls);
    CHECK_STR("CN=example.test", seen.subject);
    CHECK_STR("O=netio,CN=Test_Intermediate", seen.issuer);
    CHECK_STR("localhost", seen.name);
    CHECK_EQ(5, seen.name_count);
    CHECK_EQ(3, seen.chain_len); // as built, root included
    CHECK_EQ(2, seen.serial_len);
    CHECK_EQ(1704067200, seen.not_before); // 2024-01-01
    CHECK_EQ(2524607999, seen.not_after);  // 2049-12-31 23:59:59
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_verify, on_verify_cannot_turn_a_check_off)
{
    netio_tls_ctx *client = tls_client_ctx(asking), *server = tls_server_ctx("expired.pem", NULL);
    memset(&seen, 0, sizeof seen);
    seen.answer = true;
    tls_expect_refused(client, server, "example.test", NETIO_TLS_EXPIRED);
    tls_expect_refused(client, server, "other.test", NETIO_TLS_EXPIRED | NETIO_TLS_NAME);
    CHECK_EQ(0, seen.calls); // it is asked about peers that are good otherwise
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_verify, info_has_the_peers_certificate)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("chain.pem", NULL);
    netio_tls_info info;
    size_t len;
    char *der = load("good.der", &len);
    tls_pair p = {0};
    tls_pair_open(&p, client, server, "www.example.test");
    CHECK_OK(netio_tls_get_info(p.client, &info));
    CHECK_EQ(0, info.version);
    CHECK(info.chain == NULL);
    tls_handshake_done(&p);
    CHECK_OK(netio_tls_get_info(p.client, &info));
    CHECK_EQ(NETIO_TLS_1_3, info.version);
    CHECK_STR("TLSv1.3", info.version_text);
    CHECK_STR("TLS_AES_128_GCM_SHA256", info.cipher);
    CHECK_STR("www.example.test", info.server_name);
    CHECK_EQ(2, info.chain_len); // as sent
    CHECK_STR("O=netio,CN=Test_Intermediate", info.chain[1].subject);
    CHECK_EQ(0x30, *(const uint8_t *)info.chain[0].der.data);
    CHECK(!info.resumed);
    CHECK_OK(netio_tls_get_info(p.server, &info));
    CHECK_STR("www.example.test", info.server_name);
    CHECK(info.chain == NULL);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);

    client = tls_client_ctx(NULL);
    server = tls_server_ctx("good.pem", NULL);
    tls_pair_open(&p, client, server, "example.test");
    tls_handshake_done(&p);
    CHECK_OK(netio_tls_get_info(p.client, &info));
    CHECK_EQ(len, info.chain[0].der.len);
    CHECK_MEM(der, info.chain[0].der.data, len);
    tls_pair_close(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
    free(der);
}

// --- clients' certificates ----------------------------------------------------------------------

static void asks(netio_tls_config *cfg)
{
    cfg->ca_file = tls_file("ca.crt");
    cfg->client_cert = NETIO_TLS_CLIENT_CERT_OPTIONAL;
}

static void requires(netio_tls_config *cfg)
{
    asks(cfg);
    cfg->client_cert = NETIO_TLS_CLIENT_CERT_REQUIRED;
}

static void requires_1_2(netio_tls_config *cfg)
{
    requires(cfg);
    cfg->max_version = NETIO_TLS_1_2;
}

static const char *client_pem;

static void with_client_pem(netio_tls_config *cfg)
{
    cfg->cert_file = client_pem ? tls_file(client_pem) : NULL;
}

TEST(tls_verify, client_certificates_are_none_asked_or_required)
{
    // What each server makes of it: bits, 0: let in.
    static const struct {
        const char *pem;
        unsigned none, asks, requires_;
    } rows[] = {{NULL, 0, 0, NETIO_TLS_NO_CERT},
                {"client.pem", 0, 0, 0},
                {"client2.pem", 0, 0, 0},
                {"no_eku.pem", 0, 0, 0},
                {"client_other.pem", 0, NETIO_TLS_UNTRUSTED, NETIO_TLS_UNTRUSTED},
                {"client_expired.pem", 0, NETIO_TLS_EXPIRED, NETIO_TLS_EXPIRED},
                {"good.pem", 0, NETIO_TLS_PURPOSE, NETIO_TLS_PURPOSE},
                {"self.pem", 0, NETIO_TLS_UNTRUSTED, NETIO_TLS_UNTRUSTED}};
    static const tls_change hows[] = {NULL, asks, requires, requires_1_2};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        client_pem = rows[i].pem;
        netio_tls_ctx *client = tls_client_ctx(with_client_pem);
        for (int k = 0; k < 4; k++) {
            unsigned want = k == 0 ? rows[i].none : k == 1 ? rows[i].asks : rows[i].requires_;
            netio_tls_ctx *server = tls_server_ctx("good.pem", hows[k]);
            netio_tls_error e = {0};
            netio_tls_info info;
            char byte;
            tls_pair p = {0};
            tls_pair_open(&p, client, server, "example.test");
            tls_handshake(&p);
            netio_tls_get_error(p.server, &e);
            if (e.verify != want || (want ? NETIO_ETLS : 0) != p.server_err)
                test_fail(__FILE__, __LINE__, "%s, server %d: %s", rows[i].pem, k, e.text);
            CHECK_OK(netio_tls_get_info(p.server, &info));
            CHECK_EQ(!want && k > 0 && rows[i].pem, info.chain_len);
            if (i == 2 && !want && k > 0)
                CHECK_STR("O=netio,CN=Client\\, Ltd.", info.chain[0].subject);
            if (want) { // with TLS 1.3 the client hears of it when it reads
                CHECK_ERR(NETIO_ETLS, netio_tls_read(p.client, &byte, 1));
                CHECK_OK(netio_tls_get_error(p.client, &e));
                CHECK_EQ(NETIO_TLS_ALERT, e.code);
            }
            tls_pair_close(&p);
            netio_tls_ctx_unref(server);
        }
        netio_tls_ctx_unref(client);
    }
}

TEST(tls_verify, a_server_that_wants_certificates_must_say_whose)
{
    netio_tls_config cfg = {0};
    netio_tls_ctx *ctx;
    netio_tls_error why;
    cfg.cert_file = tls_file("good.pem");
    cfg.client_cert = NETIO_TLS_CLIENT_CERT_REQUIRED;
    CHECK_ERR(NETIO_ETLS, netio_tls_ctx_create(&ctx, &cfg, &why));
    CHECK(strstr(why.text, "client_cert needs") != NULL);
}

// --- OCSP answers -------------------------------------------------------------------------------

static const char *staple;

static void stapled(netio_tls_config *cfg) { cfg->staple_file = staple ? tls_file(staple) : NULL; }

static void wants_staple(netio_tls_config *cfg) { cfg->require_staple = true; }

TEST(tls_verify, a_staple_is_checked_where_it_is_required)
{
    static const struct {
        const char *file;
        bool good;
    } rows[] = {{"staple_good.der", true},
                {NULL, false},
                {"staple_revoked.der", false},
                {"staple_rsa.der", false}}; // of another certificate
    netio_tls_ctx *wants = tls_client_ctx(wants_staple), *plain = tls_client_ctx(NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        staple = rows[i].file;
        netio_tls_ctx *server = tls_server_ctx("good.pem", stapled);
        tls_expect_ok(plain, server, "example.test");
        if (rows[i].good) tls_expect_ok(wants, server, "example.test");
        else tls_expect_refused(wants, server, "example.test", NETIO_TLS_REVOKED);
        netio_tls_ctx_unref(server);
    }
    netio_tls_ctx_unref(wants);
    netio_tls_ctx_unref(plain);
}

TEST_MAIN("tls_verify", T(tls_verify, matrix_with_tls_1_3), T(tls_verify, matrix_with_tls_1_2),
          T(tls_verify, insecure_no_chain_leaves_all_else_on),
          T(tls_verify, insecure_no_name_leaves_all_else_on),
          T(tls_verify, insecure_no_time_leaves_all_else_on), T(tls_verify, the_time_can_be_set),
          T(tls_verify, roots_come_from_file_directory_and_memory),
          T(tls_verify, a_roots_own_signature_may_be_sha1),
          T(tls_verify, the_systems_roots_do_not_know_ours),
          T(tls_verify, bad_roots_are_refused_when_they_are_given),
          T(tls_verify, only_what_a_certificate_can_be_for_is_dialed),
          T(tls_verify, a_pin_must_be_in_the_chain),
          T(tls_verify, without_chain_only_the_leaf_can_be_pinned),
          T(tls_verify, on_verify_sees_the_chain_and_can_refuse),
          T(tls_verify, on_verify_cannot_turn_a_check_off),
          T(tls_verify, info_has_the_peers_certificate),
          T(tls_verify, client_certificates_are_none_asked_or_required),
          T(tls_verify, a_server_that_wants_certificates_must_say_whose),
          T(tls_verify, a_staple_is_checked_where_it_is_required))
