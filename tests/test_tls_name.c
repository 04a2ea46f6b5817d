// Which names match which hosts, and the reader of certificates, on any bytes. Both are reached
// from outside only through a handshake per case, so this program has the implementation inside.
#define NETIO_STATIC
#define NETIO_IMPLEMENTATION
#if !defined(NETIO_TLS_OPENSSL) && !defined(NETIO_TLS_NONE)
#define NETIO_TLS_OPENSSL
#endif
#include "netio_tls.h"

#include "test.h"

#if !NETIO__TLS_HAS_ANY
TEST(tls_name, needs_a_backend) { SKIP("not built with a TLS library"); }
TEST_MAIN("tls_name", T(tls_name, needs_a_backend))
#else

static netio__der span(const void *data, size_t len)
{
    netio__der d;
    d.at = (const uint8_t *)data;
    d.len = len;
    return d;
}

// --- names --------------------------------------------------------------------------------------

TEST(tls_name, patterns_match_what_rfc_9525_says)
{
    static const struct {
        const char *pattern, *host;
        bool want;
    } rows[] = {
        {"example.test", "example.test", true},
        {"EXAMPLE.test", "example.TEST", true},
        {"example.test", "example.test.", true},
        {"localhost", "localhost", true},
        {"a_b.example.test", "a_b.example.test", true},
        {"*.example.test", "www.example.test", true},
        {"*.EXAMPLE.test", "www.example.test", true},
        {"*.example.test", "xn--bcher-kva.example.test", true},
        {"xn--bcher-kva.test", "xn--bcher-kva.test", true},
        {"example.test.", "example.test", false},
        {"example.tes", "example.test", false},
        {"example.test", "example.tes", false},
        {"", "example.test", false},
        {"*.example.test", "example.test", false},
        {"*.example.test", "a.b.example.test", false},
        {"*.example.test", "www.example.testx", false},
        {"*.test", "example.test", false},
        {"*.", "example.test", false},
        {"*.a.", "x.a", false},
        {"*", "localhost", false},
        {"*", "example.test", false},
        {"*.*.test", "a.b.test", false},
        {"**.example.test", "www.example.test", false},
        {"w*.example.test", "www.example.test", false},
        {"*w.example.test", "www.example.test", false},
        {"www.*.test", "www.example.test", false},
        {"xn--*.example.test", "xn--bcher-kva.example.test", false},
        {"*.example.test", "*.example.test", false},
        {"127.0.0.1", "127.0.0.1", false},
        {"*.0.0.1", "127.0.0.1", false},
        {"::1", "::1", false},
        {" example.test", "example.test", false},
        {"example.test:443", "example.test", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio__tls_host host;
        bool asked = netio__tls_host_parse(&host, rows[i].host, strlen(rows[i].host));
        bool got =
            asked && netio__tls_name_is(span(rows[i].pattern, strlen(rows[i].pattern)), &host);
        if (got != rows[i].want)
            test_fail(__FILE__, __LINE__, "\"%s\" for %s: %d", rows[i].pattern, rows[i].host, got);
    }
    netio__tls_host host;
    CHECK(netio__tls_host_parse(&host, "example.test", 12));
    CHECK(!netio__tls_name_is(span("example.test\0.evil.test", 23), &host));
    CHECK(!netio__tls_name_is(span("example.test\0", 13), &host));
    CHECK(!netio__tls_name_is(span("ex\xc3\xa4mple.test", 13), &host));
}

TEST(tls_name, addresses_are_compared_by_their_bytes)
{
    static const uint8_t names[] = {0x87, 4, 127,  0, 0, 1, 0x87, 16, 0x20, 1,    0xd,
                                    0xb8, 0, 0,    0, 0, 0, 0,    0,  0,    0,    0,
                                    0,    9, 0x87, 5, 1, 2, 3,    4,  5,    0x87, 0};
    static const struct {
        const char *host;
        bool want;
    } rows[] = {{"127.0.0.1", true},  {"2001:db8::9", true},   {"[2001:DB8:0::9]", true},
                {"127.0.0.2", false}, {"2001:db8::8", false},  {"::ffff:127.0.0.1", false},
                {"1.2.3.4", false},   {"example.test", false}, {"2001:db8::9%eth0", true}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio__tls_host host;
        CHECK(netio__tls_host_parse(&host, rows[i].host, strlen(rows[i].host)));
        if (netio__tls_name_match(span(names, sizeof names), &host) != rows[i].want)
            test_fail(__FILE__, __LINE__, "%s", rows[i].host);
    }
}

TEST(tls_name, hosts_are_put_into_one_form)
{
    static const char *const rows[][2] = {{"WWW.Example.Test.", "www.example.test"},
                                          {"localhost", "localhost"},
                                          {"[::1]", "::1"},
                                          {"fe80::1%eth0", "fe80::1"},
                                          {"a1.2b", "a1.2b"},
                                          {"1.2.3", NULL},
                                          {"1.2.3.4.5", NULL},
                                          {"0x7f.1", NULL},
                                          {"", NULL},
                                          {".", NULL},
                                          {"a..b", NULL},
                                          {"a.b..", NULL},
                                          {"*.a.b", NULL},
                                          {"a b", NULL},
                                          {"a/b", NULL},
                                          {"10.0.0.0/8", NULL},
                                          {"user@host", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio__tls_host host;
        bool ok = netio__tls_host_parse(&host, rows[i][0], strlen(rows[i][0]));
        if (ok != (rows[i][1] != NULL)) test_fail(__FILE__, __LINE__, "%s", rows[i][0]);
        if (ok) CHECK_STR(rows[i][1], host.name);
    }
    netio__tls_host host;
    CHECK(!netio__tls_host_parse(&host, "a\0b", 3));
}

// --- DER ----------------------------------------------------------------------------------------

TEST(tls_name, only_strict_der_is_read)
{
    static const struct {
        uint8_t bytes[8];
        size_t len;
        bool want;
    } rows[] = {
        {{0x04, 0}, 2, true},
        {{0x04, 2, 1, 2}, 4, true},
        {{0x04, 2, 1}, 3, false}, // cut off
        {{0x04}, 1, false},
        {{0x04, 0x81, 0x80}, 3, false},       // cut off, long form
        {{0x04, 0x81, 1, 9}, 4, false},       // not the shortest form
        {{0x04, 0x82, 0, 1, 9}, 5, false},    // leading zero
        {{0x04, 0x80, 0, 0}, 4, false},       // indefinite: BER
        {{0x04, 0x84, 1, 0, 0, 0}, 6, false}, // 16 MiB and more
        {{0x04, 0xFF}, 2, false},
        {{0x1F, 0x20, 1, 0}, 4, false}, // tags of several bytes
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t *exact = (uint8_t *)malloc(rows[i].len);
        unsigned tag;
        netio__der inside;
        memcpy(exact, rows[i].bytes, rows[i].len);
        netio__der d = span(exact, rows[i].len);
        CHECK_EQ(rows[i].want, netio__der_next(&d, &tag, &inside));
        free(exact);
    }
}

// A small certificate: RSA-1024, SHA-1, an address and a name, no dates out of the ordinary.
static size_t load_certificate(uint8_t *out, size_t cap, const char *name)
{
    char path[512];
    const char *dir = getenv("NETIO_TEST_CERTS");
    if (!dir) SKIP("NETIO_TEST_CERTS names no directory that tls/certs.sh made");
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    CHECK(f != NULL);
    size_t n = fread(out, 1, cap, f);
    fclose(f);
    return n;
}

// Everything that is asked of a certificate, on whatever was read.
static void look_at(const uint8_t *data, size_t len)
{
    uint8_t *exact = (uint8_t *)malloc(len ? len : 1);
    netio__x509 x;
    char text[64];
    if (len) memcpy(exact, data, len);
    if (netio__x509_parse(&x, exact, len)) {
        bool rsa;
        netio_tls_cert c;
        netio__x509_key_bits(&x, &rsa);
        netio__x509_weak_signature(&x);
        netio__x509_serves(&x, true);
        netio__x509_title(text, sizeof text, &x, false);
        netio__x509_title(text, sizeof text, &x, true);
        CHECK(memchr(text, 0, sizeof text) != NULL);
        netio__tls_date(text, x.not_after);
        char none[1];
        size_t need = netio__tls_cert_texts(&c, &x, none, 0, NULL);
        char *texts = (char *)malloc(need);
        const char **names = (const char **)malloc((c.name_count + 1) * sizeof *names);
        CHECK_EQ(need, netio__tls_cert_texts(&c, &x, texts, need, names));
        CHECK_EQ(0, texts[need - 1]);
        free(texts);
        free(names);
    }
    free(exact);
}

TEST(tls_name, certificates_may_be_any_bytes)
{
    uint8_t der[2048], copy[2048];
    size_t len = load_certificate(der, sizeof der, "good.der");
    uint32_t random = 5;
    netio__x509 x;
    CHECK(netio__x509_parse(&x, der, len));
    for (size_t n = 0; n < len; n++) {
        CHECK(!netio__x509_parse(&x, der, n));
        look_at(der, n);
    }
    for (int i = 0; i < 20000; i++) {
        memcpy(copy, der, len);
        for (uint32_t k = test_random(&random) % 4 + 1; k; k--)
            copy[test_random(&random) % len] = (uint8_t)test_random(&random);
        look_at(copy, len);
    }
}

TEST(tls_name, a_certificates_parts_are_found)
{
    uint8_t der[2048];
    size_t len = load_certificate(der, sizeof der, "good.der");
    netio__x509 x;
    bool rsa;
    char text[64];
    CHECK(netio__x509_parse(&x, der, len));
    CHECK_EQ(256, netio__x509_key_bits(&x, &rsa));
    CHECK(!rsa);
    CHECK(!netio__x509_weak_signature(&x));
    CHECK(netio__x509_serves(&x, true));
    CHECK(!netio__x509_serves(&x, false));
    CHECK(!netio__x509_self_issued(&x));
    netio__x509_title(text, sizeof text, &x, false);
    CHECK_STR("example.test", text);
    netio__x509_title(text, sizeof text, &x, true);
    CHECK_STR("Test_Root", text);
}

TEST(tls_name, dates_are_read_and_written)
{
    static const struct {
        const char *text;
        int64_t seconds;
        const char *date;
    } rows[] = {{"\x17\x0d"
                 "700101000000Z",
                 0, "1970-01-01"},
                {"\x17\x0d"
                 "691231235959Z",
                 -1, "1969-12-31"},
                {"\x17\x0d"
                 "491231235959Z",
                 2524607999, "2049-12-31"},
                {"\x17\x0d"
                 "500101000000Z",
                 -631152000, "1950-01-01"},
                {"\x18\x0f"
                 "20500101000000Z",
                 2524608000, "2050-01-01"},
                {"\x18\x0f"
                 "20240229120000Z",
                 1709208000, "2024-02-29"},
                {"\x18\x0f"
                 "99991231235959Z",
                 253402300799, "9999-12-31"},
                {"\x18\x0f"
                 "20000229000000Z",
                 951782400, "2000-02-29"}};
    static const char *const bad[] = {"\x17\x0b"
                                      "7001010000Z",
                                      "\x17\x0d"
                                      "7001010000000",
                                      "\x17\x0d"
                                      "70130100000Z ",
                                      "\x17\x0d"
                                      "701301000000Z",
                                      "\x18\x0d"
                                      "700101000000Z",
                                      "\x13\x0d"
                                      "700101000000Z"};
    int64_t got;
    char date[16];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio__der d = span(rows[i].text, strlen(rows[i].text));
        CHECK(netio__x509_time(&d, &got));
        CHECK_EQ(rows[i].seconds, got);
        netio__tls_date(date, got);
        CHECK_STR(rows[i].date, date);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        netio__der d = span(bad[i], strlen(bad[i]));
        CHECK(!netio__x509_time(&d, &got));
    }
}

TEST(tls_name, what_a_peer_wrote_cannot_forge_a_line)
{
    char text[64];
    size_t n = netio__x509_string(text, sizeof text, 0, span("a\nb,c\\\x7f\0z", 9), false);
    CHECK_STR("a\\0Ab\\,c\\\\\\7F\\00z", text);
    CHECK_EQ(strlen(text), n);
    netio__x509_string(text, sizeof text, 0, span("\0a\0\n\1x", 6), true); // UTF-16
    CHECK_STR("a\\0A?", text);
}

TEST_MAIN("tls_name", T(tls_name, patterns_match_what_rfc_9525_says),
          T(tls_name, addresses_are_compared_by_their_bytes),
          T(tls_name, hosts_are_put_into_one_form), T(tls_name, only_strict_der_is_read),
          T(tls_name, certificates_may_be_any_bytes), T(tls_name, a_certificates_parts_are_found),
          T(tls_name, dates_are_read_and_written),
          T(tls_name, what_a_peer_wrote_cannot_forge_a_line))
#endif
