// Address text, splitting and networks on any bytes.
//
// With libFuzzer:  clang -g -fsanitize=fuzzer,address,undefined -DNETIO_LIBFUZZER ...
// Without it, this is a program of its own:
//     fuzz_addr FILE...       replays the files
//     fuzz_addr               replays the seeds below, then 200,000 mutations of them
//     fuzz_addr --seeds DIR   writes the seeds as files, to begin a corpus with
//
// The first byte picks what is tried, the rest is its text; it lies in a block of exactly its
// length, so that one byte too far is seen by ASan and valgrind.
#define FUZZ_ROUNDS 200000
#define FUZZ_ROOM 256
#include "fuzz.h"

static bool filled(const void *what, size_t len)
{
    const unsigned char *p = (const unsigned char *)what;
    for (size_t i = 0; i < len; i++)
        if (p[i] != 0xC7) return false;
    return true;
}

// Everything that holds for an address, wherever it comes from. `exact`: its text is one that
// parses to the same value.
static void check_address(const netio_addr *a, bool exact)
{
    char text[NETIO_ADDR_TEXT + 1], host[NETIO_ADDR_TEXT + 1], small[NETIO_ADDR_TEXT + 1];
    netio_addr b, bare = *a, other = *a;
    netio_cidr net;
    int n, m;
    size_t len = 0;

    memset(text, 0xC7, sizeof text);
    n = netio_addr_format(a, text, NETIO_ADDR_TEXT);
    m = netio_addr_format_host(a, host, NETIO_ADDR_TEXT);
    HOLDS(n > 0 && n < NETIO_ADDR_TEXT && strlen(text) == (size_t)n);
    HOLDS(m >= 0 && m <= n && strlen(host) == (size_t)m);
    HOLDS(netio_addr_sockaddr(a, &len) != NULL && len == a->len && len <= sizeof a->raw);
    HOLDS(netio_addr_equal(a, a) && netio_addr_equal_host(a, a));
    for (int cap = 0; cap <= n; cap += cap < 4 || cap > n - 4 ? 1 : n / 4 + 1) {
        memset(small, 0xC7, sizeof small);
        HOLDS(netio_addr_format(a, small, (size_t)cap) == NETIO_ENOSPC);
        HOLDS(cap == 0 || memchr(small, 0, (size_t)cap) != NULL);
        HOLDS(filled(small + cap, sizeof small - (size_t)cap));
    }

    HOLDS(netio_addr_from_sockaddr(&b, netio_addr_sockaddr(a, &len), len) == 0);
    HOLDS(netio_addr_equal(a, &b) && netio_addr_hash(a) == netio_addr_hash(&b));
    if (exact) {
        HOLDS(netio_addr_parse(&b, text, (size_t)n) == 0);
        HOLDS(b.len == a->len && memcmp(b.raw, a->raw, a->len) == 0);
        HOLDS(netio_addr_equal(a, &b) && netio_addr_hash(a) == netio_addr_hash(&b));
    }

    netio_addr_unmap(&bare);
    HOLDS(netio_addr_equal(a, &bare) && netio_addr_hash(a) == netio_addr_hash(&bare));
    HOLDS((netio_addr_class(&bare) & NETIO_ADDR_MAPPED) == 0);
    HOLDS((netio_addr_class(a) & ~(unsigned)NETIO_ADDR_MAPPED) == netio_addr_class(&bare));
    netio_addr_set_port(&other, (uint16_t)(netio_addr_port(a) ^ 1));
    HOLDS(netio_addr_equal_host(a, &other));
    if (netio_addr_ip(a).len) {
        HOLDS(!netio_addr_equal(a, &other));
        HOLDS(netio_addr_port(&other) == (uint16_t)(netio_addr_port(a) ^ 1));
        if (!netio_addr_scope(a) && !strchr(host, '%')) { // a network of this one host
            HOLDS(netio_cidr_parse(&net, host, (size_t)m) == 0);
            HOLDS(netio_cidr_contains(&net, a));
        }
    }
}

static void try_parse(const char *text, size_t len)
{
    netio_addr a;
    netio_buf host, port;
    int err;
    memset(&a, 0xC7, sizeof a);
    err = netio_addr_parse(&a, text, len);
    HOLDS(err == 0 || err == NETIO_EINVAL || err == NETIO_ENAMETOOLONG || err == NETIO_ENODEV ||
          err == NETIO_ENOTSUP);
    if (err < 0) {
        HOLDS(filled(&a, sizeof a));
        return;
    }
    HOLDS(netio_addr_family(&a) > 0);
    HOLDS(a.dual == (text[0] == ':' || text[0] == '*'));
    check_address(&a, true);
    if (netio_addr_family(&a) == NETIO_UNIX) return;
    HOLDS(netio_addr_split(&host, &port, text, len) == 0); // what parses can be split
    HOLDS(port.len >= 1 && port.len <= 5);
}

static void try_split(const char *text, size_t len)
{
    netio_buf host, port;
    const char *h, *p;
    if (netio_addr_split(&host, &port, text, len) < 0) return;
    h = (const char *)host.data;
    p = (const char *)port.data;
    HOLDS(h >= text && h + host.len <= text + len);
    HOLDS(p >= text && p + port.len == text + len); // the port is what stands at the end
    HOLDS(p > text && p[-1] == ':' && h + host.len < p);
    if (h != text) HOLDS(text[0] == '[' && h == text + 1 && h[host.len] == ']');
}

static void try_cidr(const char *text, size_t len)
{
    netio_cidr net;
    netio_addr a;
    int err;
    memset(&net, 0xC7, sizeof net);
    err = netio_cidr_parse(&net, text, len);
    HOLDS(err == 0 || err == NETIO_EINVAL);
    if (err < 0) {
        HOLDS(filled(&net, sizeof net));
        return;
    }
    HOLDS(net.ip_len == 4 || net.ip_len == 16);
    HOLDS(net.bits <= net.ip_len * 8);
    HOLDS(netio_addr_from_ip(&a, net.ip, net.ip_len, 0) == 0);
    HOLDS(netio_cidr_contains(&net, &a)); // a network has its own first address
}

static void try_sockaddr(const char *bytes, size_t len)
{
    netio_addr a;
    int family;
    memset(&a, 0xC7, sizeof a);
    if (netio_addr_from_sockaddr(&a, bytes, len) < 0) {
        HOLDS(filled(&a, sizeof a));
        return;
    }
    family = netio_addr_family(&a);
    // A path from the OS may hold what text cannot say (NUL in an abstract name), and other
    // families have no text that parses.
    if (family != 0) check_address(&a, false);
}

static void try_path(const char *path, size_t len)
{
    netio_addr a;
    memset(&a, 0xC7, sizeof a);
    if (netio_addr_from_path(&a, path, len) < 0) {
        HOLDS(filled(&a, sizeof a));
        return;
    }
    HOLDS(netio_addr_family(&a) == NETIO_UNIX);
    check_address(&a, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len;
    char *text;
    if (size == 0) return 0;
    len = size - 1;
    text = (char *)malloc(len ? len : 1);
    if (!text) return 0;
    if (len) memcpy(text, data + 1, len);
    switch ((uint8_t)(data[0] - 0x30) % 5) { // a digit, so that seeds can be read
    case 0: try_parse(text, len); break;
    case 1: try_split(text, len); break;
    case 2: try_cidr(text, len); break;
    case 3: try_sockaddr(text, len); break;
    default: try_path(text, len); break;
    }
    free(text);
    return 0;
}

#ifndef NETIO_LIBFUZZER
// clang-format off
static const fuzz_seed seeds[] = {
    SEED("0" "192.0.2.1:80"), SEED("0" "[2001:db8::1]:443"), SEED("0" "[fe80::1%1]:9"),
    SEED("0" "[fe80::1%4000000000]:9"), SEED("0" "[::ffff:1.2.3.4]:65535"), SEED("0" ":8080"),
    SEED("0" "*:8080"), SEED("0" "unix:/run/app.sock"), SEED("0" "unix:@abstract"),
    SEED("0" "[1:2:3:4:5:6:7:8]:1"), SEED("0" "[1:2:3:4:5:6:7::]:1"), SEED("0" "[::]:0"),
    SEED("0" "[1:2:3:4:5:6:1.2.3.4]:1"), SEED("0" "[ff02::1%4000000000]:1"),
    SEED("1" "example.com:443"), SEED("1" "[::1]:80"), SEED("1" ":http"), SEED("1" "a:b"),
    SEED("2" "10.0.0.0/8"), SEED("2" "2001:db8::/32"), SEED("2" "192.0.2.1"), SEED("2" "::/0"),
    SEED("2" "::ffff:0.0.0.0/96"), SEED("2" "0.0.0.0/0"),
    SEED("3" "\x02\x00\x00\x50\xc0\x00\x02\x01\0\0\0\0\0\0\0\0"),
    SEED("3" "\x0a\x00\x01\xbb\0\0\0\0\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0"),
    SEED("3" "\x01\x00/run/app\0"), SEED("3" "\x01\x00\0abstract\0name"), SEED("3" "\x01\x00"),
    SEED("3" "\x01\x00@a"), SEED("3" "\x10\x00\0\0\x01\0\0\0\0\0\0\0"), SEED("3" "\0\0"),
    SEED("4" "/run/app.sock"), SEED("4" "@abstract"), SEED("4" "relative"),
};
// clang-format on

static const char alphabet[] = "0123456789abcdefF:.[]%/*@unix \0\xff";

FUZZ_MAIN(seeds, alphabet)
#endif // NETIO_LIBFUZZER
