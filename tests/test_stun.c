// STUN Binding, examples/common/stun.h: the messages of RFC 5769, each truncation and flipped bit
// of them, limits, what a server answers, and when a client asks again.
#include "test.h"

#include "../examples/common/stun.h"

//================================================================================================
// Tools
//================================================================================================

// RFC 5769 sections 2.1 to 2.4.
// clang-format off
static const char request[] =
    "\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"
    "\x80\x22\x00\x10\x53\x54\x55\x4e\x20\x74\x65\x73\x74\x20\x63\x6c\x69\x65\x6e\x74"
    "\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36"
    "\x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\x00\x08\x00\x14"
    "\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2"
    "\x80\x28\x00\x04\xe5\x7a\x3b\xcf";
static const char answer4[] =
    "\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"
    "\x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\x00\x20\x00\x08"
    "\x00\x01\xa1\x47\xe1\x12\xa6\x43\x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3"
    "\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\x80\x28\x00\x04\xc0\x7d\x4c\x96";
static const char answer6[] =
    "\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"
    "\x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\x00\x20\x00\x14"
    "\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9"
    "\x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75"
    "\xbf\xe3\xed\x41\x80\x28\x00\x04\xc8\xfb\x0b\x4c";
static const char long_term[] =
    "\x00\x01\x00\x60\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e"
    "\x00\x06\x00\x12\xe3\x83\x9e\xe3\x83\x88\xe3\x83\xaa\xe3\x83\x83\xe3\x82\xaf\xe3"
    "\x82\xb9\x00\x00\x00\x15\x00\x1c\x66\x2f\x2f\x34\x39\x39\x6b\x39\x35\x34\x64\x36"
    "\x4f\x4c\x33\x34\x6f\x4c\x39\x46\x53\x54\x76\x79\x36\x34\x73\x41\x00\x14\x00\x0b"
    "\x65\x78\x61\x6d\x70\x6c\x65\x2e\x6f\x72\x67\x00\x00\x08\x00\x14\xf6\x70\x24\x65"
    "\x6d\xd6\x4a\x3e\x02\xb8\xe0\x71\x2e\x85\xc9\xa2\x8c\xa8\x96\x66";
// clang-format on
static const char password[] = "VOkJxbRl1RmTxUk/WvJxBt";

// MD5 of the user "matrix" in katakana, ":example.org:" and "TheMatrIX".
static const uint8_t long_key[] = {0xe8, 0xca, 0x7a, 0xd5, 0x9d, 0x5e, 0xb0, 0x51,
                                   0x8e, 0x31, 0x29, 0x11, 0xd2, 0xda, 0xb2, 0xa9};

static const struct {
    const char *data;
    size_t len;
} samples[] = {{request, sizeof request - 1},
               {answer4, sizeof answer4 - 1},
               {answer6, sizeof answer6 - 1},
               {long_term, sizeof long_term - 1}};
enum { SAMPLES = sizeof samples / sizeof samples[0] };

static const uint8_t some_id[STUN_ID] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

// Parses a block of exactly these bytes, into which the message points: it stays until the next.
static int parse(stun_message *m, const void *data, size_t len)
{
    static uint8_t *block;
    free(block);
    block = NULL;
    uint8_t *copy = (uint8_t *)malloc(len ? len : 1);
    if (!copy) abort();
    if (len) memcpy(copy, data, len);
    int err = stun_parse(m, copy, len);
    if (err == 0) block = copy;
    else free(copy);
    return err;
}

static void done(void)
{
    stun_message m;
    CHECK_ERR(NETIO_EPROTO, parse(&m, "", 0)); // frees the last one
}

static const char *text_of(const netio_addr *a)
{
    static char text[NETIO_ADDR_TEXT];
    return netio_addr_format(a, text, sizeof text) < 0 ? "" : text;
}

static netio_addr addr(const char *text)
{
    netio_addr a;
    CHECK_OK(netio_addr_parse(&a, text, strlen(text)));
    return a;
}

//================================================================================================
// Reading
//================================================================================================

TEST(stun, request_of_the_rfc_is_read)
{
    stun_message m;
    CHECK_OK(parse(&m, request, sizeof request - 1));
    CHECK_EQ(STUN_REQUEST, m.type);
    CHECK(stun_is(&m, (const uint8_t *)request + 8));
    CHECK(!stun_is(&m, some_id));
    CHECK_EQ(16, m.software.len);
    CHECK_MEM("STUN test client", m.software.data, 16);
    CHECK_EQ(9, m.username.len);
    CHECK_MEM("evtj:h6vY", m.username.data, 9);
    CHECK(m.fingerprint);
    CHECK(stun_check_integrity(&m, password, sizeof password - 1));
    CHECK(!stun_check_integrity(&m, password, sizeof password - 2));
    CHECK_EQ(1, m.unknown_count); // PRIORITY is ICE's; ICE-CONTROLLED need not be understood
    CHECK_EQ(0x0024, m.unknown[0]);
    CHECK_EQ(0, m.mapped.len);
    done();
}

TEST(stun, answers_of_the_rfc_are_read)
{
    stun_message m;
    for (int six = 0; six < 2; six++) {
        CHECK_OK(parse(&m, samples[1 + six].data, samples[1 + six].len));
        CHECK_EQ(STUN_SUCCESS, m.type);
        CHECK_STR(six ? "[2001:db8:1234:5678:11:2233:4455:6677]:32853" : "192.0.2.1:32853",
                  text_of(&m.mapped));
        CHECK_EQ(11, m.software.len);
        CHECK_MEM("test vector", m.software.data, 11);
        CHECK(m.fingerprint);
        CHECK(stun_check_integrity(&m, password, sizeof password - 1));
        CHECK_EQ(0, m.unknown_count);
    }
    CHECK_OK(parse(&m, long_term, sizeof long_term - 1));
    CHECK_EQ(18, m.username.len);
    CHECK(!m.fingerprint);
    CHECK(stun_check_integrity(&m, long_key, sizeof long_key));
    done();
}

TEST(stun, no_part_of_a_message_is_one)
{
    stun_message m;
    for (size_t i = 0; i < SAMPLES; i++)
        for (size_t len = 0; len < samples[i].len; len++)
            CHECK_ERR(NETIO_EPROTO, parse(&m, samples[i].data, len));
}

// Nor with a length that fits: what is cut off is missed.
TEST(stun, truncated_messages_with_a_right_length_lose_their_sums)
{
    for (size_t i = 0; i < SAMPLES; i++) {
        for (size_t len = 20; len < samples[i].len; len += 4) {
            uint8_t copy[128];
            stun_message m;
            memcpy(copy, samples[i].data, len);
            copy[3] = (uint8_t)(len - 20);
            if (parse(&m, copy, len) < 0) continue;
            CHECK(!m.fingerprint);
            // The integrity's sum does not count what follows it.
            CHECK_EQ(i < 3 && len == samples[i].len - 8,
                     stun_check_integrity(&m, password, sizeof password - 1));
            CHECK(!stun_check_integrity(&m, long_key, sizeof long_key));
        }
    }
    done();
}

TEST(stun, every_flipped_bit_is_seen)
{
    for (size_t i = 0; i < SAMPLES; i++) {
        for (size_t bit = 0; bit < samples[i].len * 8; bit++) {
            uint8_t copy[128];
            stun_message m;
            memcpy(copy, samples[i].data, samples[i].len);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (parse(&m, copy, samples[i].len) < 0) continue;
            // A length that now counts all that follows, or another type: the sums are gone.
            CHECK(!m.fingerprint);
            CHECK(i == 3 || bit / 8 >= samples[i].len - 8 ||
                  !stun_check_integrity(&m, password, sizeof password - 1));
            CHECK(!stun_check_integrity(&m, long_key, sizeof long_key));
        }
    }
    done();
}

// A header, and attributes in hexadecimal; the length in the header is theirs.
static size_t build(uint8_t *out, int type, const char *hex)
{
    size_t len = (size_t)stun_write(out, 64, type, some_id);
    while (*hex) {
        unsigned value;
        if (*hex == ' ') hex++;
        if (sscanf(hex, "%2x", &value) != 1) abort();
        out[len++] = (uint8_t)value;
        hex += 2;
    }
    out[3] = (uint8_t)(len - 20);
    return len;
}

TEST(stun, malformed_attributes_refuse_the_message)
{
    // clang-format off
    static const struct {
        const char *hex;
        int want;
    } rows[] = {
        {"", 0},
        {"00200008 0001000a01020304", 0},
        {"00200009 0001000a01020304", NETIO_EPROTO}, // past the end
        {"00200007 0001000a01020304", NETIO_EPROTO}, // lengths of addresses
        {"00200008 0002000a01020304", NETIO_EPROTO},
        {"00200008 0003000a01020304", NETIO_EPROTO},
        {"00200014 0001000a01020304000000000000000000000000", NETIO_EPROTO},
        {"00010004 0001000a", NETIO_EPROTO},
        {"00010000", NETIO_EPROTO},
        {"0020ffff 0001000a01020304", NETIO_EPROTO},
        {"00080010 00000000000000000000000000000000", NETIO_EPROTO},
        {"00090004 00000414", 0},
        {"00090003 00000400", NETIO_EPROTO},
        {"00090004 00000214", NETIO_EPROTO}, // 220
        {"00090004 00000714", NETIO_EPROTO},
        {"00090004 00000464", NETIO_EPROTO}, // 4 and 100
        {"000a0003 00010000", NETIO_EPROTO},
        {"80280004 00000000", NETIO_EBADMSG},
        {"80280003 00000000", NETIO_EPROTO},
        {"80280008 0000000000000000", NETIO_EPROTO},
        {"80220001 41000000", 0},
        {"80220000", 0},
    };
    // clang-format on
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t out[128];
        stun_message m;
        CHECK_ERR(rows[i].want, parse(&m, out, build(out, STUN_SUCCESS, rows[i].hex)));
    }
    done();
}

TEST(stun, what_is_no_binding_is_told_apart)
{
    static uint8_t big[STUN_MAX + 4];
    uint8_t out[128];
    stun_message m;
    size_t len = build(out, STUN_SUCCESS, "80220000");
    CHECK(stun_looks_like(out, len));
    out[1] = 3; // Allocate, of TURN
    CHECK_ERR(NETIO_ENOTSUP, parse(&m, out, len));
    out[0] = 0x40; // the two upper bits are not STUN's
    CHECK(!stun_looks_like(out, len));
    CHECK_ERR(NETIO_EPROTO, parse(&m, out, len));
    out[0] = out[1] = 1;
    out[4] ^= 1; // another cookie: RFC 3489
    CHECK_ERR(NETIO_EPROTO, parse(&m, out, len));
    CHECK(!stun_looks_like(out, 19));

    build(big, STUN_SUCCESS, "");
    for (size_t size = STUN_MAX; size <= STUN_MAX + 4; size += 4) { // one large attribute
        big[STUN_HEADER] = 0x80;
        big[2] = (uint8_t)((size - 20) >> 8);
        big[3] = (uint8_t)((size - 20) & 255);
        big[STUN_HEADER + 2] = (uint8_t)((size - 24) >> 8);
        big[STUN_HEADER + 3] = (uint8_t)((size - 24) & 255);
        CHECK_ERR(size > STUN_MAX ? NETIO_EMSGSIZE : 0, parse(&m, big, size));
    }
    done();
}

TEST(stun, the_first_of_equal_attributes_counts)
{
    uint8_t out[256];
    stun_message m;
    size_t len = build(out, STUN_SUCCESS,
                       "00010008 0001000101010101 00010008 0001000202020202"
                       "80220001 41000000 80220001 42000000 00090004 00000414 00090004 00000500");
    CHECK_OK(parse(&m, out, len));
    CHECK_STR("1.1.1.1:1", text_of(&m.mapped)); // the plain one: there is no other
    CHECK_MEM("A", m.software.data, 1);
    CHECK_EQ(420, m.error);
    CHECK_EQ(0, m.reason.len);

    // XOR-MAPPED-ADDRESS is the better one: routers rewrite what looks like an address.
    len = build(out, STUN_SUCCESS,
                "00010008 0001000101010101 00200008 0001211320131246 00200008 0001000000000000");
    CHECK_OK(parse(&m, out, len));
    CHECK_STR("1.1.182.4:1", text_of(&m.mapped));
    done();
}

TEST(stun, behind_the_sums_nothing_is_believed)
{
    uint8_t out[256];
    stun_message m;
    size_t len = build(out, STUN_SUCCESS,
                       "00080014 0000000000000000000000000000000000000000"
                       "00200008 0001000a01020304 00990004 00000000");
    CHECK_OK(parse(&m, out, len));
    CHECK_EQ(0, m.mapped.len);
    CHECK_EQ(0, m.unknown_count);
    CHECK_EQ(20, m.integrity);
    len = build(out, STUN_SUCCESS, "00200008 0001000a01020304");
    len = (size_t)stun_add_fingerprint(out, sizeof out, len);
    CHECK_OK(parse(&m, out, len));
    memcpy(out + len, "\x80\x22\0\0", 4);
    out[3] = (uint8_t)(len + 4 - 20);
    CHECK(parse(&m, out, len + 4) < 0);
    done();
}

TEST(stun, unknown_attributes_are_counted_to_a_limit)
{
    uint8_t out[256];
    stun_message m;
    ptrdiff_t len = stun_write(out, sizeof out, STUN_REQUEST, some_id);
    for (int i = 0; i < 20; i++) {
        len = stun_add(out, sizeof out, (size_t)len, 0x7000 + i, NULL, 0);
        len = stun_add(out, sizeof out, (size_t)len, 0xC000 + i, NULL, 0); // these are optional
    }
    CHECK_EQ(20 + 160, len);
    CHECK_OK(parse(&m, out, (size_t)len));
    CHECK_EQ(STUN_UNKNOWN_MAX, m.unknown_count);
    for (int i = 0; i < STUN_UNKNOWN_MAX; i++) CHECK_EQ(0x7000 + i, m.unknown[i]);
    done();
}

//================================================================================================
// Writing
//================================================================================================

// To the byte, but for the padding (the RFC's examples have blanks there) and with it the sums.
TEST(stun, answers_of_the_rfc_are_written)
{
    for (int six = 0; six < 2; six++) {
        const char *want = samples[1 + six].data;
        netio_addr a =
            addr(six ? "[2001:db8:1234:5678:11:2233:4455:6677]:32853" : "192.0.2.1:32853");
        uint8_t out[128];
        stun_message m;
        ptrdiff_t len = stun_write(out, sizeof out, STUN_SUCCESS, (const uint8_t *)want + 8);
        len = stun_add_text(out, sizeof out, (size_t)len, STUN_SOFTWARE, "test vector");
        CHECK_MEM(want + 20, out + 20, 15);
        size_t mapped = (size_t)len;
        len = stun_add_xor_mapped(out, sizeof out, (size_t)len, &a);
        CHECK_MEM(want + mapped, out + mapped, (size_t)len - mapped);
        out[35] = ' ';
        len = stun_add_integrity(out, sizeof out, (size_t)len, password, sizeof password - 1);
        len = stun_add_fingerprint(out, sizeof out, (size_t)len);
        CHECK_EQ(samples[1 + six].len, len);
        CHECK_MEM(want, out, (size_t)len);
        CHECK_OK(parse(&m, out, (size_t)len));
        CHECK(netio_addr_equal(&a, &m.mapped));
    }
    done();
}

TEST(stun, what_is_written_is_read_back)
{
    static const uint16_t attributes[] = {0x7001, 0x0024, 3};
    netio_addr a = addr("[fe80::1]:1");
    uint8_t out[512];
    stun_message m;
    ptrdiff_t len = stun_write(out, sizeof out, STUN_ERROR, some_id);
    len = stun_add_error(out, sizeof out, (size_t)len, 699, "No reason");
    len = stun_add_unknown(out, sizeof out, (size_t)len, attributes, 3);
    len = stun_add_mapped(out, sizeof out, (size_t)len, &a);
    len = stun_add_text(out, sizeof out, (size_t)len, STUN_USERNAME, "");
    CHECK_OK(parse(&m, out, (size_t)len));
    CHECK_EQ(STUN_ERROR, m.type);
    CHECK_EQ(699, m.error);
    CHECK_EQ(9, m.reason.len);
    CHECK_MEM("No reason", m.reason.data, 9);
    CHECK_EQ(3, m.refused_count);
    CHECK(m.refused[0] == 0x7001 && m.refused[1] == 0x0024 && m.refused[2] == 3);
    CHECK_STR("[fe80::1]:1", text_of(&m.mapped));
    CHECK(m.username.data && m.username.len == 0);
    CHECK(!m.integrity && !stun_check_integrity(&m, "", 0));
    done();
}

TEST(stun, writing_stays_within_the_buffer)
{
    netio_addr a = addr("192.0.2.1:1");
    for (size_t cap = 0; cap < 32; cap++) {
        uint8_t *exact = (uint8_t *)malloc(cap ? cap : 1);
        if (!exact) abort();
        ptrdiff_t len = stun_write(exact, cap, STUN_SUCCESS, some_id);
        CHECK_ERR(cap < 20 ? (ptrdiff_t)NETIO_ENOSPC : 20, len);
        if (len > 0) CHECK_ERR(NETIO_ENOSPC, stun_add_xor_mapped(exact, cap, 20, &a));
        free(exact);
    }
}

TEST(stun, what_makes_no_message_is_not_written)
{
    netio_addr path;
    uint8_t out[2048];
    char text[800];
    memset(text, 'x', sizeof text);
    text[764] = 0;
    ptrdiff_t len = stun_write(out, sizeof out, STUN_ERROR, some_id);
    CHECK_EQ(20, len);
    CHECK_ERR(NETIO_EINVAL, stun_add_text(out, sizeof out, 20, STUN_SOFTWARE, text));
    CHECK_ERR(NETIO_EINVAL, stun_add_error(out, sizeof out, 20, 400, text));
    CHECK_ERR(NETIO_EINVAL, stun_add_error(out, sizeof out, 20, 299, ""));
    CHECK_ERR(NETIO_EINVAL, stun_add_error(out, sizeof out, 20, 700, ""));
    CHECK_ERR(NETIO_EINVAL, stun_add_unknown(out, sizeof out, 20, NULL, STUN_UNKNOWN_MAX + 1));
    CHECK_ERR(NETIO_EINVAL, stun_write(out, sizeof out, 3, some_id));
    CHECK_ERR(NETIO_EINVAL, stun_add(out, sizeof out, 24, STUN_SOFTWARE, "", 0)); // not its length
    CHECK_ERR(NETIO_EINVAL, stun_add(out, sizeof out, 0, STUN_SOFTWARE, "", 0));
    memset(&path, 0, sizeof path);
    CHECK_ERR(NETIO_EINVAL, stun_add_mapped(out, sizeof out, 20, &path)); // no IP address
    CHECK_ERR(NETIO_EINVAL, stun_add_xor_mapped(out, sizeof out, 20, &path));

    text[763] = 0; // and the largest message
    len = stun_add_text(out, sizeof out, 20, STUN_SOFTWARE, text);
    CHECK_EQ(20 + 4 + 764, len);
    CHECK_ERR(NETIO_EMSGSIZE, stun_add_text(out, sizeof out, (size_t)len, STUN_SOFTWARE, text));
    text[STUN_MAX - 20 - 4 - 764 - 4] = 0;
    len = stun_add_text(out, sizeof out, (size_t)len, STUN_SOFTWARE, text);
    CHECK_EQ(STUN_MAX, len);
    CHECK_ERR(NETIO_EMSGSIZE, stun_add(out, sizeof out, (size_t)len, STUN_SOFTWARE, "", 0));
    CHECK_ERR(NETIO_EMSGSIZE, stun_add_fingerprint(out, sizeof out, (size_t)len));

    len = stun_write(out, sizeof out, STUN_REQUEST, some_id);
    len = stun_add_fingerprint(out, sizeof out, (size_t)len);
    CHECK_ERR(NETIO_EINVAL, stun_add_text(out, sizeof out, (size_t)len, STUN_SOFTWARE, "late"));
}

// RFC 2202 section 3, cases 1, 2 and 6.
TEST(stun, hmac_of_the_rfc)
{
    // clang-format off
    static const struct {
        int key_byte;
        size_t key_len;
        const char *key, *data, *want;
    } rows[] = {
        {0x0b, 20, NULL, "Hi There",
         "\xb6\x17\x31\x86\x55\x05\x72\x64\xe2\x8b\xc0\xb6\xfb\x37\x8c\x8e\xf1\x46\xbe\x00"},
        {0, 4, "Jefe", "what do ya want for nothing?",
         "\xef\xfc\xdf\x6a\xe5\xeb\x2f\xa2\xd2\x74\x16\xd5\xf1\x84\xdf\x9c\x25\x9a\x7c\x79"},
        {0xaa, 80, NULL, "Test Using Larger Than Block-Size Key - Hash Key First",
         "\xaa\x4a\xe5\xe1\x52\x72\xd0\x0e\x95\x70\x56\x37\xce\x8a\x3b\x55\xed\x40\x21\x12"},
    };
    // clang-format on
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t key[80], out[20];
        netio_buf bufs[2] = {{rows[i].data, 3}, {rows[i].data + 3, strlen(rows[i].data) - 3}};
        memset(key, rows[i].key_byte, sizeof key);
        if (rows[i].key) memcpy(key, rows[i].key, rows[i].key_len);
        stun_hmac(out, key, rows[i].key_len, bufs, 2);
        CHECK_MEM(rows[i].want, out, 20);
    }
}

//================================================================================================
// Servers and clients
//================================================================================================

TEST(stun, a_server_tells_where_a_request_came_from)
{
    static const char *const from[] = {"203.0.113.7:49152", "[2001:db8::7]:1", "0.0.0.0:0"};
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        uint8_t ask[64], out[128];
        stun_message m;
        netio_addr a = addr(from[i]);
        ptrdiff_t len = stun_write(ask, sizeof ask, STUN_REQUEST, some_id);
        for (int finger = 0; finger < 2; finger++) {
            ptrdiff_t n = stun_answer(out, sizeof out, ask, (size_t)len, &a, "test");
            CHECK(n > 0 && n <= 104);
            CHECK_OK(parse(&m, out, (size_t)n));
            CHECK_EQ(STUN_SUCCESS, m.type);
            CHECK(stun_is(&m, some_id));
            CHECK_STR(from[i], text_of(&m.mapped));
            CHECK_EQ(finger, m.fingerprint);
            CHECK_MEM("test", m.software.data, m.software.len);
            CHECK_ERR(NETIO_ENOSPC, stun_answer(out, (size_t)n - 1, ask, (size_t)len, &a, "test"));
            if (!finger) len = stun_add_fingerprint(ask, sizeof ask, (size_t)len);
        }
    }
    done();
}

TEST(stun, a_server_refuses_what_it_does_not_understand)
{
    uint8_t out[128], ask[256];
    stun_message m;
    netio_addr a = addr("203.0.113.7:49152");
    ptrdiff_t n = stun_answer(out, sizeof out, request, sizeof request - 1, &a, NULL);
    CHECK(n > 0 && n <= 100);
    CHECK_OK(parse(&m, out, (size_t)n));
    CHECK_EQ(STUN_ERROR, m.type);
    CHECK_EQ(420, m.error);
    CHECK_EQ(1, m.refused_count);
    CHECK_EQ(0x0024, m.refused[0]);
    CHECK(m.fingerprint && stun_is(&m, (const uint8_t *)request + 8));

    ptrdiff_t len = stun_write(ask, sizeof ask, STUN_REQUEST, some_id);
    for (int i = 0; i < 30; i++) len = stun_add(ask, sizeof ask, (size_t)len, 0x7000 + i, NULL, 0);
    len = stun_add_fingerprint(ask, sizeof ask, (size_t)len);
    n = stun_answer(out, sizeof out, ask, (size_t)len, &a, NULL);
    CHECK(n > 0 && n <= 100); // the most there can be
    CHECK_OK(parse(&m, out, (size_t)n));
    CHECK_EQ(STUN_UNKNOWN_MAX, m.refused_count);
    done();
}

TEST(stun, a_server_is_silent_to_all_else)
{
    static const int types[] = {STUN_SUCCESS, STUN_ERROR, STUN_INDICATION};
    uint8_t out[128], ask[64];
    netio_addr a = addr("203.0.113.7:49152");
    for (int i = 0; i < 3; i++) {
        ptrdiff_t len = stun_write(ask, sizeof ask, types[i], some_id);
        CHECK_EQ(0, stun_answer(out, sizeof out, ask, (size_t)len, &a, NULL));
    }
    CHECK_EQ(0, stun_answer(out, sizeof out, request, sizeof request - 2, &a, NULL));
    CHECK_EQ(0, stun_answer(out, sizeof out, "", 0, &a, NULL));
}

// RFC 8489 section 6.2.1 has these numbers.
TEST(stun, the_schedule_of_the_rfc)
{
    static const int want[] = {0, 500, 1500, 3500, 7500, 15500, 31500, 39500};
    static const stun_schedule rfc = {0, 0, 0}, once = {100, 1, 3}, quick = {20, 3, 1};
    static const stun_schedule months = {60000, 30, 16}, bad = {-1, 0, 0}, many = {1, 31, 0};
    for (int i = 0; i < 8; i++) CHECK_EQ(want[i], stun_retry(&rfc, i));
    CHECK_EQ(-1, stun_retry(&rfc, 8));
    CHECK_EQ(-1, stun_retry(&rfc, -1));
    CHECK_EQ(0, stun_retry(&once, 0));
    CHECK_EQ(300, stun_retry(&once, 1));
    CHECK_EQ(60, stun_retry(&quick, 2));
    CHECK_EQ(80, stun_retry(&quick, 3));
    CHECK_EQ(-1, stun_retry(&months, 30));
    CHECK_EQ(-1, stun_retry(&bad, 0));
    CHECK_EQ(-1, stun_retry(&many, 0));
}

// A server that loses the first request, and answers the second one with the wrong id.
typedef struct served {
    netio_socket s;
    int requests;
} served;

static void serve(void *arg)
{
    served *st = (served *)arg;
    uint8_t in[STUN_MAX], out[128];
    while (st->requests < 3) {
        netio_addr from;
        ptrdiff_t n = netio_recvfrom(st->s, in, sizeof in, &from, 5000);
        if (n < 0) return;
        st->requests++;
        if (st->requests == 1) continue;
        if (st->requests == 2) in[10] ^= 1;
        n = stun_answer(out, sizeof out, in, (size_t)n, &from, NULL);
        netio_sendto(st->s, out, (size_t)n, &from, 1000);
    }
}

static bool is_mine(void *user, netio_buf got)
{
    stun_message m;
    return stun_parse(&m, got.data, got.len) == 0 && stun_is(&m, (const uint8_t *)user) &&
           m.type == STUN_SUCCESS && m.unknown_count == 0;
}

TEST(stun, over_udp_only_the_right_answer_counts)
{
    uint8_t ask[32], got[STUN_MAX], id[STUN_ID];
    netio_addr where, me;
    stun_message m;
    served st;
    test_thread t;
    netio_socket s;
    memset(&st, 0, sizeof st);
    memcpy(id, some_id, sizeof id);
    CHECK_OK(netio_bind(&st.s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(st.s, &where));
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(s, &me));
    netio_buf bytes = {ask, (size_t)stun_write(ask, sizeof ask, STUN_REQUEST, id)};
    netio_room room = {got, sizeof got};
    test_thread_start(&t, serve, &st);
    uint64_t start = test_ms();
    ptrdiff_t n = netio_query(s, &where, bytes, room, is_mine, id, 7, 50);
    uint64_t took = test_ms() - start;
    test_thread_join(&t);
    CHECK(n > 0);
    CHECK_BETWEEN(149, 4000, took); // sent again after 50, and after 100 more
    CHECK_OK(stun_parse(&m, got, (size_t)n));
    CHECK(netio_addr_equal(&me, &m.mapped));
    CHECK_EQ(3, st.requests);
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&st.s));
}

TEST_MAIN("stun", T(stun, request_of_the_rfc_is_read), T(stun, answers_of_the_rfc_are_read),
          T(stun, no_part_of_a_message_is_one),
          T(stun, truncated_messages_with_a_right_length_lose_their_sums),
          T(stun, every_flipped_bit_is_seen), T(stun, malformed_attributes_refuse_the_message),
          T(stun, what_is_no_binding_is_told_apart), T(stun, the_first_of_equal_attributes_counts),
          T(stun, behind_the_sums_nothing_is_believed),
          T(stun, unknown_attributes_are_counted_to_a_limit),
          T(stun, answers_of_the_rfc_are_written), T(stun, what_is_written_is_read_back),
          T(stun, writing_stays_within_the_buffer), T(stun, what_makes_no_message_is_not_written),
          T(stun, hmac_of_the_rfc), T(stun, a_server_tells_where_a_request_came_from),
          T(stun, a_server_refuses_what_it_does_not_understand),
          T(stun, a_server_is_silent_to_all_else), T(stun, the_schedule_of_the_rfc),
          T(stun, over_udp_only_the_right_answer_counts))
