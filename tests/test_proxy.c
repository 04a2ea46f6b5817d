// The PROXY protocol both ways, and the client's side of SOCKS5 and HTTP CONNECT: bytes in, bytes
// out, no socket.
#include "test.h"

//================================================================================================
// Tools
//================================================================================================

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static netio_addr addr(const char *text)
{
    netio_addr a;
    CHECK_OK(netio_addr_parse(&a, text, strlen(text)));
    return a;
}

static void check_addr(const char *file, int line, const char *want, const netio_addr *a)
{
    char text[NETIO_ADDR_TEXT] = "none";
    if (a->len) netio_addr_format(a, text, sizeof text);
    test_check_str(file, line, "address", want, text);
}
#define CHECK_ADDR(want, a) check_addr(__FILE__, __LINE__, want, a)

// Parse from a block of exactly that length, so that a byte too far is seen.
static ptrdiff_t parse(const void *data, size_t len, netio_addr *src, netio_addr *dst)
{
    void *exact = malloc(len ? len : 1);
    ptrdiff_t n;
    if (!exact) abort();
    memcpy(exact, data, len);
    n = netio_proxy_parse(exact, len, src, dst);
    free(exact);
    return n;
}

// The same verdict for the whole and for every front part: 0 until it can be told, then `want`, at
// byte `at` for errors. Untouched outputs before.
static void check_parse(const char *file, int line, const void *data, size_t len, ptrdiff_t want,
                        size_t at)
{
    for (size_t n = 0; n <= len; n++) {
        netio_addr src, dst, before;
        ptrdiff_t got, expect = n >= at ? want : 0;
        memset(&src, 0x77, sizeof src);
        memset(&dst, 0x77, sizeof dst);
        memset(&before, 0x77, sizeof before);
        got = parse(data, n, &src, &dst);
        if (got != expect)
            test_fail(file, line, "after %d bytes %d (%s)", (int)n, (int)got, netio_errname(got));
        if (got <= 0 && (memcmp(&src, &before, sizeof src) || memcmp(&dst, &before, sizeof dst)))
            test_fail(file, line, "touched after %d bytes", (int)n);
    }
}
#define CHECK_PARSE(data, len, want, at) check_parse(__FILE__, __LINE__, data, len, want, at)

// CRC-32C once more, bit by bit.
static unsigned crc32c(const unsigned char *p, size_t len)
{
    unsigned crc = 0xFFFFFFFF;
    while (len--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78 : 0);
    }
    return ~crc;
}

// A header of version 2 by hand. Returns its length.
static size_t v2(unsigned char *out, unsigned command, unsigned family, const void *rest,
                 size_t len)
{
    memcpy(out, SIGNATURE, 12);
    out[12] = (unsigned char)command;
    out[13] = (unsigned char)family;
    out[14] = (unsigned char)(len >> 8);
    out[15] = (unsigned char)(len & 255);
    if (len) memcpy(out + 16, rest, len);
    return 16 + len;
}

#define IP4 "\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb" // 192.0.2.1:1234, 198.51.100.2:443
#define IP6                                                                                        \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"         \
    "\x04\xd2\x01\xbb"

//================================================================================================
// Version 1
//================================================================================================

TEST(proxy, version_1_gives_the_addresses)
{
    static const struct {
        const char *text, *src, *dst;
    } rows[] = {
        {"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324",
         "192.168.0.11:443"},
        {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535",
         "255.255.255.255:65535"},
        {"PROXY TCP4 0.0.0.0 1.2.3.4 0 0\r\n", "0.0.0.0:0", "1.2.3.4:0"},
        {"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 1 2\r\n", "[2001:db8::1]:1",
         "[2001:db8::2]:2"},
        {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
        {"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1:1", "[::1]:2"},
        {"PROXY UNKNOWN\r\n", "none", "none"},
        {"PROXY UNKNOWN \r\n", "none", "none"},
        {"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "none", "none"}, // 107 bytes, the longest there is
        {"PROXY UNKNOWN \x01 anything \xff\r\n", "none", "none"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char data[160];
        netio_addr src, dst;
        size_t len = strlen(rows[i].text);
        CHECK_EQ(len, parse(rows[i].text, len, &src, &dst));
        CHECK_ADDR(rows[i].src, &src);
        CHECK_ADDR(rows[i].dst, &dst);
        // What follows belongs to the connection.
        memcpy(data, rows[i].text, len);
        memcpy(data + len, "GET / HTTP/1.1\r\n", 16);
        CHECK_PARSE(data, len + 16, (ptrdiff_t)len, len);
    }
}

TEST(proxy, version_1_refuses_all_but_its_grammar)
{
    static const struct {
        const char *text;
        size_t at; // bytes that had to be there
    } rows[] = {
        {"GET / HTTP/1.1\r\n", 1},
        {"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 1},
        {"PROX TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 5},
        {"PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n", 6},
        {"PROXY\r\n", 6},
        {"PROXY \r\n", 8},
        {"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 33},
        {"PROXY TCP4\r\n", 12},
        {"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", 32},
        {"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", 32},
        {"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", 32},
        {"PROXY UNKNOWNx\r\n", 16},
        {"PROXY unknown\r\n", 15},
        {"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", 33},
        {"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", 33},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1  2\r\n", 33},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", 33},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", 34},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", 30},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", 31},
        {"PROXY TCP4 1.2.3.4 1.2.3.4\r\n", 28},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", 33},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n", 33},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", 33},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", 36},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", 36},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n", 32},
        {"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", 33},
        {"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", 30},
        {"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", 34},
        {"PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n", 34},
        {"PROXY TCP4 1.2.3.4 localhost 1 2\r\n", 34},
        {"PROXY TCP4 ::1 ::1 1 2\r\n", 24},
        {"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", 32},
        {"PROXY TCP6 ::1 1.2.3.4 1 2\r\n", 28},
        {"PROXY TCP6 :::1 ::1 1 2\r\n", 25},
        {"PROXY TCP6 1::2::3 ::1 1 2\r\n", 28},
        {"PROXY TCP6 12345::1 ::1 1 2\r\n", 29},
        {"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", 34},
        {"PROXY TCP6 [::1] ::1 1 2\r\n", 26},
        {"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", 31},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", 31},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX", 32},
        {"PROXY UNKNOWN\n\r\n", 14},
        {"PROXY UNKNOWN\r\r\n", 15},
        {"PROXY UNKNOWN a\rb\r\n", 17},
        {"PROXY TCP4\r1.2.3.4 1.2.3.4 1 2\r\n", 12},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_addr src, dst;
        size_t len = strlen(rows[i].text);
        ptrdiff_t n = parse(rows[i].text, len, &src, &dst);
        if (n != NETIO_EPROTO) test_fail(__FILE__, __LINE__, "%d: %s", (int)n, rows[i].text);
        if (parse(rows[i].text, rows[i].at - 1, &src, &dst) != 0)
            test_fail(__FILE__, __LINE__, "before %d: %s", (int)rows[i].at, rows[i].text);
        CHECK_PARSE(rows[i].text, len, NETIO_EPROTO, rows[i].at);
    }
}

TEST(proxy, version_1_has_at_most_107_bytes)
{
    char text[200];
    memset(text, 'a', sizeof text);
    memcpy(text, "PROXY UNKNOWN ", 14);
    memcpy(text + 105, "\r\n", 2);
    CHECK_PARSE(text, 107, 107, 107);
    text[105] = 'a';
    memcpy(text + 106, "\r\n", 2);
    CHECK_PARSE(text, 108, NETIO_EPROTO, 107);
    memset(text + 100, 'a', 100);
    CHECK_PARSE(text, 200, NETIO_EPROTO, 107);
}

//================================================================================================
// Version 2
//================================================================================================

TEST(proxy, version_2_gives_the_addresses)
{
    static const struct {
        unsigned command, family;
        const char *rest;
        size_t len;
        const char *src, *dst;
    } rows[] = {
        {0x21, 0x11, IP4, 12, "192.0.2.1:1234", "198.51.100.2:443"},
        {0x21, 0x12, IP4, 12, "192.0.2.1:1234", "198.51.100.2:443"},
        {0x21, 0x21, IP6, 36, "[2001:db8::1]:1234", "[2001:db8::2]:443"},
        {0x21, 0x22, IP6, 36, "[2001:db8::1]:1234", "[2001:db8::2]:443"},
        {0x21, 0x21,
         "\0\0\0\0\0\0\0\0\0\0\xff\xff\1\2\3\4\0\0\0\0\0\0\0\0\0\0\xff\xff\5\6\7\x8\0\1\0\2", 36,
         "1.2.3.4:1", "5.6.7.8:2"},
        {0x20, 0x00, "", 0, "none", "none"},   // LOCAL
        {0x20, 0x11, IP4, 12, "none", "none"}, // what it carries does not count
        {0x20, 0x00, "anything", 8, "none", "none"},
        {0x20, 0xff, "anything", 8, "none", "none"}, // nor does the family
        {0x20, 0x31, "", 0, "none", "none"},
        {0x21, 0x00, "", 0, "none", "none"}, // UNSPEC
        {0x21, 0x00, "anything", 8, "none", "none"},
        {0x21, 0x10, IP4, 12, "none", "none"},
        {0x21, 0x01, IP4, 12, "none", "none"},
        {0x21, 0x30, "", 0, "none", "none"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned char data[64];
        netio_addr src, dst;
        size_t len = v2(data, rows[i].command, rows[i].family, rows[i].rest, rows[i].len);
        CHECK_EQ(len, parse(data, len, &src, &dst));
        CHECK_ADDR(rows[i].src, &src);
        CHECK_ADDR(rows[i].dst, &dst);
        data[len] = 0x16; // what follows belongs to the connection
        CHECK_PARSE(data, len + 1, (ptrdiff_t)len, len);
    }
}

TEST(proxy, version_2_refuses_all_but_its_grammar)
{
    static const struct {
        unsigned command, family;
        const char *rest;
        size_t len, at;
        ptrdiff_t err;
    } rows[] = {
        {0x11, 0x11, IP4, 12, 13, NETIO_EPROTO}, // version
        {0x31, 0x11, IP4, 12, 13, NETIO_EPROTO},
        {0x01, 0x11, IP4, 12, 13, NETIO_EPROTO},
        {0x22, 0x11, IP4, 12, 13, NETIO_EPROTO}, // command
        {0x2f, 0x11, IP4, 12, 13, NETIO_EPROTO},
        {0x21, 0x41, IP4, 12, 14, NETIO_EPROTO}, // family
        {0x21, 0xf1, IP4, 12, 14, NETIO_EPROTO},
        {0x21, 0x13, IP4, 12, 14, NETIO_EPROTO}, // protocol
        {0x21, 0x2f, IP6, 36, 14, NETIO_EPROTO},
        {0x21, 0x03, "", 0, 14, NETIO_EPROTO},
        {0x21, 0x11, IP4, 11, 16, NETIO_EPROTO}, // shorter than its addresses
        {0x21, 0x11, "", 0, 16, NETIO_EPROTO},
        {0x21, 0x21, IP6, 35, 16, NETIO_EPROTO},
        {0x21, 0x21, IP4, 12, 16, NETIO_EPROTO},
        {0x21, 0x31, IP6, 36, 16, NETIO_EPROTO},
        {0x21, 0x11, IP4 "\x04", 13, 29, NETIO_EPROTO}, // lists that are none
        {0x21, 0x11, IP4 "\x04\0", 14, 30, NETIO_EPROTO},
        {0x21, 0x11, IP4 "\x04\0\1", 15, 31, NETIO_EPROTO},
        {0x21, 0x11, IP4 "\x04\0\0\x04\xff\xff", 18, 34, NETIO_EPROTO},
        {0x21, 0x11, IP4 "\x03\0\0", 15, 31, NETIO_EPROTO}, // a sum of another size
        {0x21, 0x11, IP4 "\x03\0\5\1\2\3\4\5", 20, 36, NETIO_EPROTO},
        {0x21, 0x11, IP4 "\x03\0\4\1\2\3\4\x03\0\4\1\2\3\4", 26, 42, NETIO_EPROTO}, // two sums
        {0x21, 0x11, IP4 "\x03\0\4\1\2\3\4", 19, 35, NETIO_EBADMSG},
    };
    unsigned char data[64];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t len = v2(data, rows[i].command, rows[i].family, rows[i].rest, rows[i].len);
        CHECK_PARSE(data, len, rows[i].err, rows[i].at);
    }
    for (size_t i = 0; i < 12; i++) { // the signature, byte by byte
        size_t len = v2(data, 0x21, 0x11, IP4, 12);
        data[i] ^= 1;
        CHECK_PARSE(data, len, NETIO_EPROTO, i + 1);
    }
}

TEST(proxy, version_2_longer_than_the_limit_is_refused_at_its_length)
{
    static unsigned char data[NETIO_PROXY_MAX + 1], rest[NETIO_PROXY_MAX];
    netio_addr src, dst;
    memcpy(rest, IP4, 12);
    rest[12] = NETIO_PROXY_NOOP;
    rest[13] = (NETIO_PROXY_MAX - 16 - 15) >> 8;
    rest[14] = (NETIO_PROXY_MAX - 16 - 15) & 255;
    CHECK_EQ(NETIO_PROXY_MAX, v2(data, 0x21, 0x11, rest, NETIO_PROXY_MAX - 16));
    CHECK_EQ(0, parse(data, NETIO_PROXY_MAX - 1, &src, &dst));
    CHECK_EQ(NETIO_PROXY_MAX, parse(data, NETIO_PROXY_MAX, &src, &dst));
    CHECK_ADDR("192.0.2.1:1234", &src);
    data[15]++;
    CHECK_EQ(0, parse(data, 15, &src, &dst));
    CHECK_ERR(NETIO_EMSGSIZE, parse(data, 16, &src, &dst));
    CHECK_ERR(NETIO_EMSGSIZE, parse(data, NETIO_PROXY_MAX + 1, &src, &dst));
}

TEST(proxy, version_2_gives_paths)
{
    unsigned char data[232], rest[216];
    netio_addr src, dst;
    if (netio_addr_from_path(&src, "/a", 2) < 0) SKIP("no Unix sockets in this build");
    memset(rest, 0, sizeof rest);
    memcpy(rest, "/run/a.sock", 11);
    size_t len = v2(data, 0x21, 0x31, rest, 216);
    CHECK_PARSE(data, len, 232, 232);
    CHECK_EQ(232, parse(data, len, &src, &dst));
    CHECK_ADDR("unix:/run/a.sock", &src);
    CHECK_ADDR("none", &dst);     // a socket without a name
    memset(rest + 108, 'x', 108); // 108 bytes need no NUL, but this system's addresses want one
    len = v2(data, 0x21, 0x32, rest, 216);
    CHECK_EQ(232, parse(data, len, &src, &dst));
    CHECK_ADDR("none", &dst);
#if defined(__linux__)
    memset(rest + 108, 0, 108);
    memcpy(rest + 108, "\0name", 5);
    len = v2(data, 0x21, 0x31, rest, 216);
    CHECK_EQ(232, parse(data, len, &src, &dst));
    CHECK_ADDR("unix:@name", &dst);
#endif
}

TEST(proxy, version_2_checks_its_sum)
{
    unsigned char data[80];
    netio_addr src, dst;
    size_t len = v2(data, 0x21, 0x11, IP4 "\x04\0\2zz\x03\0\4\0\0\0\0\x02\0\1x", 28);
    unsigned sum = crc32c(data, len);
    for (int i = 0; i < 4; i++) data[36 + i] = (unsigned char)(sum >> (24 - 8 * i));
    CHECK_PARSE(data, len, (ptrdiff_t)len, len);
    for (size_t bit = 0; bit < 8 * len; bit++) { // every single bit counts
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        ptrdiff_t n = parse(data, len, &src, &dst);
        // The length's bits, the command's and the types' change what it is, to something else that
        // is not this header.
        if (n == (ptrdiff_t)len && bit / 8 >= 16 && bit / 8 != 33)
            test_fail(__FILE__, __LINE__, "bit %d", (int)bit);
        if (bit / 8 >= 16 && bit / 8 < 28) CHECK_ERR(NETIO_EBADMSG, n);
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

TEST(proxy, tlvs_are_walked_through)
{
    static const char rest[] =
        IP4 "\x01\0\2h2\x04\0\0\x20\0\x0f\1\0\0\0\0\x21\0\7TLSv1.3\xea\0\1\xff";
    unsigned char data[80];
    netio_addr src, dst;
    size_t len = v2(data, 0x21, 0x11, rest, sizeof rest - 1);
    netio_buf list, value, inner;
    int type = 0;
    CHECK_EQ(len, parse(data, len, &src, &dst));
    list = netio_proxy_tlvs(data, len);
    CHECK_ERR(1, netio_proxy_next_tlv(&list, &type, &value));
    CHECK_EQ(NETIO_PROXY_ALPN, type);
    CHECK_EQ(2, value.len);
    CHECK_MEM("h2", value.data, 2);
    CHECK_ERR(1, netio_proxy_next_tlv(&list, &type, &value));
    CHECK_EQ(NETIO_PROXY_NOOP, type);
    CHECK_EQ(0, value.len);
    CHECK_ERR(1, netio_proxy_next_tlv(&list, &type, &value));
    CHECK_EQ(NETIO_PROXY_SSL, type);
    CHECK_EQ(15, value.len);
    inner.data = (const char *)value.data + 5;
    inner.len = value.len - 5;
    CHECK_ERR(1, netio_proxy_next_tlv(&inner, &type, &value));
    CHECK_EQ(NETIO_PROXY_SSL_VERSION, type);
    CHECK_MEM("TLSv1.3", value.data, 7);
    CHECK_ERR(0, netio_proxy_next_tlv(&inner, &type, &value));
    CHECK_ERR(1, netio_proxy_next_tlv(&list, &type, &value));
    CHECK_EQ(0xea, type);
    CHECK_ERR(0, netio_proxy_next_tlv(&list, &type, &value));
    CHECK_ERR(0, netio_proxy_next_tlv(&list, &type, &value));
    list.data = "\1\0\5abc"; // a list of the user's own, cut
    list.len = 6;
    CHECK_ERR(NETIO_EPROTO, netio_proxy_next_tlv(&list, &type, &value));
    CHECK_EQ(0, netio_proxy_tlvs("PROXY UNKNOWN\r\n", 15).len);
    len = v2(data, 0x20, 0x00, "\1\0\2h2", 5); // of LOCAL all is left out
    CHECK_EQ(0, netio_proxy_tlvs(data, len).len);
}

//================================================================================================
// Writing
//================================================================================================

TEST(proxy, header_that_is_written_is_read_again)
{
    static const struct {
        const char *src, *dst, *v1;
        size_t v2_len;
    } rows[] = {
        {"192.0.2.1:1234", "198.51.100.2:443", "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n",
         28},
        {"[2001:db8::1]:0", "[2001:db8::2]:65535", "PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n",
         52},
        {"192.0.2.1:1", "[2001:db8::2]:2", NULL, 52}, // the longer family of the two
        {"[2001:db8::1]:1", "192.0.2.2:2", NULL, 52},
        {NULL, NULL, "PROXY UNKNOWN\r\n", 16},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_addr src, dst, a, b;
        const char *none = "none";
        char out[300];
        if (rows[i].src) {
            src = addr(rows[i].src);
            dst = addr(rows[i].dst);
        }
        for (int version = 1; version <= 2; version++) {
            ptrdiff_t n = netio_proxy_write(out, sizeof out, version, rows[i].src ? &src : NULL,
                                            rows[i].src ? &dst : NULL);
            CHECK(n > 0);
            if (version == 1 && rows[i].v1) {
                CHECK_EQ(strlen(rows[i].v1), n);
                CHECK_MEM(rows[i].v1, out, strlen(rows[i].v1));
            }
            if (version == 2) CHECK_EQ(rows[i].v2_len, n);
            CHECK_EQ(n, parse(out, (size_t)n, &a, &b));
            CHECK_ADDR(rows[i].src ? rows[i].src : none, &a);
            CHECK_ADDR(rows[i].src ? rows[i].dst : none, &b);
            for (size_t cap = 0; cap < (size_t)n; cap++)
                CHECK_ERR(NETIO_ENOSPC,
                          netio_proxy_write(out, cap, version, rows[i].src ? &src : NULL,
                                            rows[i].src ? &dst : NULL));
            CHECK_EQ(n, netio_proxy_write(out, (size_t)n, version, rows[i].src ? &src : NULL,
                                          rows[i].src ? &dst : NULL));
        }
    }
}

TEST(proxy, header_has_no_place_for_a_zone)
{
    netio_addr src = addr("[fe80::1%1]:7"), dst = addr("[fe80::2%1]:8"), a, b;
    char out[300];
    for (int version = 1; version <= 2; version++) {
        ptrdiff_t n = netio_proxy_write(out, sizeof out, version, &src, &dst);
        CHECK_EQ(n, parse(out, (size_t)n, &a, &b));
        CHECK_ADDR("[fe80::1]:7", &a);
        CHECK_ADDR("[fe80::2]:8", &b);
    }
}

TEST(proxy, paths_are_written_in_version_2_and_unknown_in_version_1)
{
    netio_addr src, dst, a, b;
    char out[300];
    if (netio_addr_from_path(&src, "/run/a.sock", 11) < 0) SKIP("no Unix sockets in this build");
    dst = src;
    CHECK_EQ(232, netio_proxy_write(out, sizeof out, 2, &src, &dst));
    CHECK_EQ(232, parse(out, 232, &a, &b));
    CHECK_ADDR("unix:/run/a.sock", &a);
    CHECK_ADDR("unix:/run/a.sock", &b);
    CHECK_EQ(15, netio_proxy_write(out, sizeof out, 1, &src, &dst));
    CHECK_MEM("PROXY UNKNOWN\r\n", out, 15);
    dst = addr("192.0.2.1:1");
    CHECK_ERR(NETIO_EINVAL, netio_proxy_write(out, sizeof out, 2, &src, &dst));
    CHECK_ERR(NETIO_EINVAL, netio_proxy_write(out, sizeof out, 2, &dst, NULL));
    CHECK_ERR(NETIO_EINVAL, netio_proxy_write(out, sizeof out, 2, NULL, &dst));
    CHECK_ERR(NETIO_EINVAL, netio_proxy_write(out, sizeof out, 0, &dst, &dst));
    CHECK_ERR(NETIO_EINVAL, netio_proxy_write(out, sizeof out, 3, &dst, &dst));
}

TEST(proxy, tlvs_are_added_and_the_sum_is_kept_right)
{
    static unsigned char out[NETIO_PROXY_MAX + 16], big[NETIO_PROXY_MAX];
    netio_addr src = addr("192.0.2.1:1234"), dst = addr("198.51.100.2:443"), a, b;
    netio_buf list, value;
    int type = 0;
    ptrdiff_t n = netio_proxy_write(out, sizeof out, 2, &src, &dst);
    n = netio_proxy_add_tlv(out, sizeof out, (size_t)n, NETIO_PROXY_AUTHORITY, "a.example", 9);
    CHECK_EQ(28 + 12, n);
    CHECK_ERR(NETIO_ENOSPC, netio_proxy_add_tlv(out, 46, (size_t)n, NETIO_PROXY_CRC32C, NULL, 0));
    n = netio_proxy_add_tlv(out, 47, (size_t)n, NETIO_PROXY_CRC32C, NULL, 0);
    CHECK_EQ(47, n);
    CHECK_EQ(n, parse(out, (size_t)n, &a, &b));
    n = netio_proxy_add_tlv(out, sizeof out, (size_t)n, 0xe0, NULL, 0); // behind the sum, too
    CHECK_EQ(50, n);
    CHECK_EQ(n, parse(out, (size_t)n, &a, &b));
    CHECK_ADDR("192.0.2.1:1234", &a);
    unsigned sum =
        (unsigned)out[43] << 24 | (unsigned)out[44] << 16 | (unsigned)out[45] << 8 | out[46];
    memset(out + 43, 0, 4);
    CHECK_EQ(crc32c(out, 50), sum);
    list = netio_proxy_tlvs(out, (size_t)n);
    CHECK_ERR(1, netio_proxy_next_tlv(&list, &type, &value));
    CHECK_EQ(NETIO_PROXY_AUTHORITY, type);
    CHECK_MEM("a.example", value.data, 9);

    n = netio_proxy_write(out, sizeof out, 2, &src, &dst);
    CHECK_ERR(NETIO_EINVAL, netio_proxy_add_tlv(out, sizeof out, (size_t)n, 256, NULL, 0));
    CHECK_ERR(NETIO_EINVAL, netio_proxy_add_tlv(out, sizeof out, (size_t)n, -1, NULL, 0));
    CHECK_ERR(NETIO_EMSGSIZE,
              netio_proxy_add_tlv(out, sizeof out, 28, 4, big, NETIO_PROXY_MAX - 30));
    CHECK_EQ(NETIO_PROXY_MAX,
             netio_proxy_add_tlv(out, sizeof out, 28, 4, big, NETIO_PROXY_MAX - 31));
    n = netio_proxy_write(out, sizeof out, 1, &src, &dst);
    CHECK_ERR(NETIO_EINVAL, netio_proxy_add_tlv(out, sizeof out, (size_t)n, 4, NULL, 0));
    n = netio_proxy_write(out, sizeof out, 2, NULL, NULL);
    CHECK_ERR(NETIO_EINVAL, netio_proxy_add_tlv(out, sizeof out, (size_t)n, 4, NULL, 0));
}

TEST(proxy, unique_id_has_at_most_128_bytes)
{
    unsigned char out[300], id[129] = {0};
    netio_addr src = addr("192.0.2.1:1234"), a, b;
    for (size_t len = 127; len <= 129; len++) {
        ptrdiff_t n = netio_proxy_write(out, sizeof out, 2, &src, &src);
        n = netio_proxy_add_tlv(out, sizeof out, (size_t)n, NETIO_PROXY_UNIQUE_ID, id, len);
        CHECK_ERR(len <= 128 ? n : NETIO_EPROTO, parse(out, (size_t)n, &a, &b));
    }
}

//================================================================================================
// SOCKS5 and CONNECT
//================================================================================================

static netio_tunnel tunnel;

// What it wants to send now.
static void check_output(const char *file, int line, const void *want, size_t len)
{
    netio_buf out = netio_tunnel_output(&tunnel);
    test_check_eq(file, line, "length of the output", (long long)len, (long long)out.len);
    if (out.len == len) test_check_mem(file, line, "output", want, out.data, len);
    out = netio_tunnel_output(&tunnel); // each byte once
    test_check_eq(file, line, "length of the output again", 0, (long long)out.len);
}
#define CHECK_OUTPUT(want, len) check_output(__FILE__, __LINE__, want, len)

// Feed `len` bytes, cut at `cut`; returns the verdict, `*used` how many were taken.
static int feed(const char *data, size_t len, size_t cut, size_t *used)
{
    size_t first = 0, second = 0;
    int r = netio_tunnel_input(&tunnel, data, cut, &first);
    if (r == 0 && first != cut) test_fail(__FILE__, __LINE__, "it waits and took %d", (int)first);
    if (r == 0) r = netio_tunnel_input(&tunnel, data + cut, len - cut, &second);
    *used = first + second;
    return r;
}

typedef struct dialog {
    const char *proxy, *target;
    struct {
        const char *out;
        size_t out_len;
        const char *in;
        size_t in_len;
    } steps[3]; // of SOCKS5: greeting, user, request
    int verdict;
    size_t extra; // bytes behind the last answer
} dialog;

// The dialog, with each answer cut at every byte and byte by byte.
static void check_dialog(const dialog *d)
{
    for (size_t cut = 0; cut < 64; cut++) {
        CHECK_OK(netio_tunnel_init(&tunnel, d->proxy, d->target));
        int r = 0;
        for (int i = 0; i < 3 && d->steps[i].out; i++) {
            size_t len = d->steps[i].in_len, used, want;
            bool last = i == 2 || !d->steps[i + 1].out;
            CHECK_OUTPUT(d->steps[i].out, d->steps[i].out_len);
            r = feed(d->steps[i].in, len, cut < len ? cut : len, &used);
            want = last ? len - d->extra : len;
            if (r >= 0) CHECK_EQ(want, used);
            CHECK_ERR(last ? d->verdict : 0, r);
        }
        size_t used = 7;
        CHECK_ERR(r, netio_tunnel_input(&tunnel, "x", 1, &used)); // it stays so
        CHECK_EQ(0, used);
    }
}

#define OK4 "\5\0\0\1\x7f\0\0\1\x04\x38"
#define BYTES(text) text, sizeof text - 1

TEST(tunnel, socks5_goes_through)
{
    static const dialog rows[] = {
        {"socks5://p:1080",
         "192.0.2.1:80",
         {{BYTES("\5\1\0"), BYTES("\5\0")}, {BYTES("\5\1\0\1\xc0\0\2\1\0\x50"), BYTES(OK4)}, {0}},
         1,
         0},
        {"socks5://p:1080",
         "[2001:db8::1]:443",
         {{BYTES("\5\1\0"), BYTES("\5\0")},
          {BYTES("\5\1\0\4\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\1\xbb"),
           BYTES("\5\0\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0"
                 "SSH-2.0")},
          {0}},
         1,
         7},
        {"socks5://p:1080",
         "example.com:443", // the proxy looks the name up
         {{BYTES("\5\1\0"), BYTES("\5\0")},
          {BYTES("\5\1\0\3\x0b"
                 "example.com\1\xbb"),
           BYTES("\5\0\0\3\4host\0\1"
                 "hello")},
          {0}},
         1,
         5},
        {"socks5://me:secret@[::1]:1080",
         "a:1",
         {{BYTES("\5\2\0\2"), BYTES("\5\2")},
          {BYTES("\1\2me\6secret"), BYTES("\1\0")},
          {BYTES("\5\1\0\3\1a\0\1"), BYTES(OK4 "x")}},
         1,
         1},
        {"socks5://me:secret@p:1080",
         "a:1", // a proxy that does not want the user
         {{BYTES("\5\2\0\2"), BYTES("\5\0")}, {BYTES("\5\1\0\3\1a\0\1"), BYTES(OK4)}, {0}},
         1,
         0},
        {"socks5://m%65%3a%40:%25%00x@p:1080",
         "a:1", // escapes
         {{BYTES("\5\2\0\2"), BYTES("\5\2")},
          {BYTES("\1\4me:@\3%\0x"), BYTES("\1\0")},
          {BYTES("\5\1\0\3\1a\0\1"), BYTES(OK4)}},
         1,
         0},
        {"socks5://me:@p:1080",
         "a:1", // an empty password
         {{BYTES("\5\2\0\2"), BYTES("\5\2")},
          {BYTES("\1\2me\0"), BYTES("\1\0")},
          {BYTES("\5\1\0\3\1a\0\1"), BYTES(OK4)}},
         1,
         0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) check_dialog(&rows[i]);
}

TEST(tunnel, socks5_refusals_have_their_error)
{
    static const int errors[] = {NETIO_EIO,          NETIO_EACCES,       NETIO_ENETUNREACH,
                                 NETIO_EHOSTUNREACH, NETIO_ECONNREFUSED, NETIO_ETIMEDOUT,
                                 NETIO_ENOTSUP,      NETIO_EAFNOSUPPORT, NETIO_EPROTO};
    for (int code = 1; code <= 9; code++) {
        char reply[] = "\5\1\0\1\0\0\0\0\0\0";
        size_t used;
        reply[1] = (char)code;
        for (size_t cut = 0; cut <= 10; cut++) {
            CHECK_OK(netio_tunnel_init(&tunnel, "socks5://p:1", "a:1"));
            CHECK_ERR(0, feed("\5\0", 2, 1, &used));
            CHECK_ERR(errors[code - 1], feed(reply, 10, cut, &used));
        }
        // Some send no more than the code.
        CHECK_OK(netio_tunnel_init(&tunnel, "socks5://p:1", "a:1"));
        CHECK_ERR(0, feed("\5\0", 2, 1, &used));
        CHECK_ERR(errors[code - 1], feed(reply, 2, 1, &used));
    }
}

TEST(tunnel, socks5_answers_that_are_none_are_refused)
{
    static const dialog rows[] = {
        {"socks5://p:1", "a:1", {{BYTES("\5\1\0"), BYTES("\4\0")}, {0}, {0}}, NETIO_EPROTO, 0},
        {"socks5://p:1", "a:1", {{BYTES("\5\1\0"), BYTES("H")}, {0}, {0}}, NETIO_EPROTO, 0},
        {"socks5://p:1", "a:1", {{BYTES("\5\1\0"), BYTES("\5\1")}, {0}, {0}}, NETIO_EPROTO, 0},
        {"socks5://p:1", "a:1", {{BYTES("\5\1\0"), BYTES("\5\2")}, {0}, {0}}, NETIO_EACCES, 0},
        {"socks5://p:1", "a:1", {{BYTES("\5\1\0"), BYTES("\5\xff")}, {0}, {0}}, NETIO_EACCES, 0},
        {"socks5://u:p@p:1",
         "a:1",
         {{BYTES("\5\2\0\2"), BYTES("\5\2")}, {BYTES("\1\1u\1p"), BYTES("\1\1")}, {0}},
         NETIO_EACCES,
         0},
        {"socks5://u:p@p:1",
         "a:1",
         {{BYTES("\5\2\0\2"), BYTES("\5\2")}, {BYTES("\1\1u\1p"), BYTES("\5\0")}, {0}},
         NETIO_EPROTO,
         0},
        {"socks5://p:1",
         "a:1",
         {{BYTES("\5\1\0"), BYTES("\5\0")}, {BYTES("\5\1\0\3\1a\0\1"), BYTES("\4\0\0\1")}, {0}},
         NETIO_EPROTO,
         0},
        {"socks5://p:1",
         "a:1",
         {{BYTES("\5\1\0"), BYTES("\5\0")}, {BYTES("\5\1\0\3\1a\0\1"), BYTES("\5\0\1\1")}, {0}},
         NETIO_EPROTO,
         0},
        {"socks5://p:1",
         "a:1",
         {{BYTES("\5\1\0"), BYTES("\5\0")}, {BYTES("\5\1\0\3\1a\0\1"), BYTES("\5\0\0\2")}, {0}},
         NETIO_EPROTO,
         0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) check_dialog(&rows[i]);
}

TEST(tunnel, connect_goes_through)
{
    static const dialog rows[] = {
        {"http://p:8080",
         "example.com:443",
         {{BYTES("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"),
           BYTES("HTTP/1.1 200 Connection established\r\n\r\n\x16\3\1")},
          {0},
          {0}},
         1,
         3},
        {"http://p:8080",
         "[2001:db8::1]:22",
         {{BYTES("CONNECT [2001:db8::1]:22 HTTP/1.1\r\nHost: [2001:db8::1]:22\r\n\r\n"),
           BYTES("HTTP/1.0 200 OK\r\nTransfer-Encoding: x\r\nContent-Length: 5\r\n\r\nHTTP/1.1")},
          {0},
          {0}},
         1,
         8},
        {"http://Aladdin:open%20sesame@p:8080",
         "a:1",
         {{BYTES("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n"
                 "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"),
           BYTES("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\n"
                 "HTTP/1.1 299 x\r\n\r\n")},
          {0},
          {0}},
         1,
         0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) check_dialog(&rows[i]);
}

TEST(tunnel, connect_refusals_have_their_error)
{
    static const int rows[][2] = {
        {101, NETIO_ECONNREFUSED}, {301, NETIO_ECONNREFUSED}, {400, NETIO_ECONNREFUSED},
        {401, NETIO_EACCES},       {403, NETIO_EACCES},       {404, NETIO_ECONNREFUSED},
        {405, NETIO_ENOTSUP},      {407, NETIO_EACCES},       {500, NETIO_ECONNREFUSED},
        {501, NETIO_ENOTSUP},      {502, NETIO_EHOSTUNREACH}, {503, NETIO_EHOSTUNREACH},
        {504, NETIO_ETIMEDOUT},    {599, NETIO_ECONNREFUSED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[128];
        size_t used, len;
        len = (size_t)snprintf(text, sizeof text, "HTTP/1.1 %d x\r\nContent-Length: 4\r\n\r\nbody",
                               rows[i][0]);
        for (size_t cut = 0; cut <= len; cut++) {
            CHECK_OK(netio_tunnel_init(&tunnel, "http://p:1", "a:1"));
            CHECK_ERR(rows[i][1], feed(text, len, cut, &used));
        }
    }
}

TEST(tunnel, connect_answers_that_are_none_are_refused)
{
    static const struct {
        const char *text;
        size_t at; // bytes that had to be there
    } rows[] = {
        {"SSH-2.0-x\r\n", 1},
        {"HTTP/2 200\r\n\r\n", 6},
        {"HTTP/1.1 200 OK\n\n", 16},
        {"HTTP/1.1 2xx OK\r\n\r\n", 19},
        {"HTTP/1.1 200 OK\r\nA b\r\n\r\n", 24},
        {"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", 23},
        {"HTTP/1.1 100 x\r\n\r\nX", 19},
    };
    static char big[5000];
    size_t used;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t len = strlen(rows[i].text);
        for (size_t cut = 0; cut <= len; cut++) {
            CHECK_OK(netio_tunnel_init(&tunnel, "http://p:1", "a:1"));
            CHECK_ERR(NETIO_EPROTO, feed(rows[i].text, len, cut, &used));
            CHECK_EQ(rows[i].at, used);
        }
    }
    for (size_t len = 4095; len <= 4097; len++) {
        memset(big, 'a', sizeof big);
        memcpy(big, "HTTP/1.1 200 ", 13);
        memcpy(big + len - 4, "\r\n\r\n", 4);
        CHECK_OK(netio_tunnel_init(&tunnel, "http://p:1", "a:1"));
        CHECK_ERR(len <= 4096 ? 1 : NETIO_EMSGSIZE, feed(big, len, 100, &used));
    }
}

TEST(tunnel, init_judges_both_texts)
{
    static char name[300], user[600];
    static const struct {
        const char *proxy, *target;
        int err;
    } rows[] = {
        {"socks5://127.0.0.1:1080", "example.com:80", 0},
        {"socks5://[::1]:1080", "xn--bcher-kva.example:80", 0},
        {"http://proxy.example:3128", "example.com.:80", 0},
        {"", "a:1", NETIO_EINVAL},
        {"p:1", "a:1", NETIO_EINVAL},
        {"socks5:/p:1", "a:1", NETIO_EINVAL},
        {"socks5://p", "a:1", NETIO_EINVAL},
        {"socks5://", "a:1", NETIO_EINVAL},
        {"socks4://p:1", "a:1", NETIO_ENOTSUP},
        {"https://p:1", "a:1", NETIO_ENOTSUP},
        {"SOCKS5://p:1", "a:1", NETIO_ENOTSUP},
        {"socks5://u@p:1", "a:1", NETIO_EINVAL},
        {"socks5://:p@p:1", "a:1", NETIO_EINVAL},
        {"socks5://u%4:p@p:1", "a:1", NETIO_EINVAL},
        {"socks5://u%zz:p@p:1", "a:1", NETIO_EINVAL},
        {"socks5://u:%@p:1", "a:1", NETIO_EINVAL},
        {"http://u%3a:p@p:1", "a:1", NETIO_EINVAL},
        {"http://u%0a:p@p:1", "a:1", NETIO_EINVAL},
        {"http://u:p%0d@p:1", "a:1", NETIO_EINVAL},
        {"http://p:1", "a", NETIO_EINVAL},
        {"http://p:1", ":80", NETIO_EINVAL},
        {"http://p:1", "*:80", NETIO_EINVAL},
        {"http://p:1", "0.0.0.0:80", NETIO_EINVAL},
        {"http://p:1", "[::]:80", NETIO_EINVAL},
        {"http://p:1", "a:http", NETIO_EINVAL},
        {"http://p:1", "a:65536", NETIO_EINVAL},
        {"http://p:1", "a b:80", NETIO_EINVAL},
        {"http://p:1", "a\r\nX: y:80", NETIO_EINVAL},
        {"http://p:1", "a/b:80", NETIO_EINVAL},
        {"http://p:1",
         "b\xc3\xbc"
         "cher:80",
         NETIO_EINVAL},
        {"http://p:1", "1.2.3:80", NETIO_EINVAL},
        {"http://p:1", "[fe80::1%1]:80", NETIO_EINVAL},
        {"http://p:1", "[::1:80", NETIO_EINVAL},
        {"http://p:1", "[a]:80", NETIO_EINVAL},
        {"http://p:1", "unix:/run/a", NETIO_EINVAL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int err = netio_tunnel_init(&tunnel, rows[i].proxy, rows[i].target);
        if (err != rows[i].err)
            test_fail(__FILE__, __LINE__, "%s: %s %s", netio_errname(err), rows[i].proxy,
                      rows[i].target);
    }
    CHECK_OK(netio_tunnel_init(&tunnel, "socks5://u:p@[::1]:1080", "a:1"));
    CHECK_STR("[::1]:1080", tunnel.address);
    memset(name, 'a', 256);
    memcpy(name + 256, ":80", 4);
    CHECK_ERR(NETIO_ENAMETOOLONG, netio_tunnel_init(&tunnel, "socks5://p:1", name));
    snprintf(user, sizeof user, "socks5://%.255s:%.255s@p:1", name, name);
    CHECK_OK(netio_tunnel_init(&tunnel, user, "a:1"));
    snprintf(user, sizeof user, "socks5://%.256s:x@p:1", name);
    CHECK_ERR(NETIO_ENAMETOOLONG, netio_tunnel_init(&tunnel, user, "a:1"));
    snprintf(user, sizeof user, "socks5://x:%.256s@p:1", name);
    CHECK_ERR(NETIO_ENAMETOOLONG, netio_tunnel_init(&tunnel, user, "a:1"));
}

// Everything at its longest, so that the sanitizers see the buffers full.
TEST(tunnel, longest_texts_fit)
{
    static char name[300], user[600], wide[254];
    size_t used, len;
    for (int i = 0; i < 253; i++) wide[i] = i % 64 == 63 ? '.' : 'a';
    memset(name, 'u', 255);
    for (int kind = 0; kind < 2; kind++) {
        char target[300];
        snprintf(target, sizeof target, "%s:65535", wide);
        snprintf(user, sizeof user, "%s://%.255s:%.255s@p:1", kind ? "http" : "socks5", name, name);
        CHECK_OK(netio_tunnel_init(&tunnel, user, target));
        len = netio_tunnel_output(&tunnel).len;
        if (kind == 0) {
            CHECK_EQ(4, len);
            CHECK_ERR(0, feed("\5\2", 2, 1, &used));
            CHECK_EQ(3 + 255 + 255, netio_tunnel_output(&tunnel).len);
            CHECK_ERR(0, feed("\1\0", 2, 1, &used));
            CHECK_EQ(4 + 1 + 253 + 2, netio_tunnel_output(&tunnel).len);
            char reply[300] = "\5\0\0\3\xff";
            CHECK_ERR(1, feed(reply, 262, 100, &used));
            CHECK_EQ(262, used);
        } else {
            CHECK_EQ(8 + 259 + 17 + 259 + 29 + 684 + 4, len);
        }
    }
}

// clang-format off
TEST_MAIN("proxy",
    T(proxy, version_1_gives_the_addresses),
    T(proxy, version_1_refuses_all_but_its_grammar),
    T(proxy, version_1_has_at_most_107_bytes),
    T(proxy, version_2_gives_the_addresses),
    T(proxy, version_2_refuses_all_but_its_grammar),
    T(proxy, version_2_longer_than_the_limit_is_refused_at_its_length),
    T(proxy, version_2_gives_paths),
    T(proxy, version_2_checks_its_sum),
    T(proxy, tlvs_are_walked_through),
    T(proxy, header_that_is_written_is_read_again),
    T(proxy, header_has_no_place_for_a_zone),
    T(proxy, paths_are_written_in_version_2_and_unknown_in_version_1),
    T(proxy, tlvs_are_added_and_the_sum_is_kept_right),
    T(proxy, unique_id_has_at_most_128_bytes),
    T(tunnel, socks5_goes_through),
    T(tunnel, socks5_refusals_have_their_error),
    T(tunnel, socks5_answers_that_are_none_are_refused),
    T(tunnel, connect_goes_through),
    T(tunnel, connect_refusals_have_their_error),
    T(tunnel, connect_answers_that_are_none_are_refused),
    T(tunnel, init_judges_both_texts),
    T(tunnel, longest_texts_fit))
// clang-format on
