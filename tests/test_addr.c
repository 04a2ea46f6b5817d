// Addresses: text to value and back, classes, equality, networks, the OS's own form.
//
// inet_pton and inet_ntop stand beside our parser and formatter as a second opinion; the RFC 5952
// formatter in this file is a third one, written from the RFC's rules.
#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#elif !defined(_GNU_SOURCE)
#define _GNU_SOURCE // MAP_ANONYMOUS, if_nameindex under -std=c99
#endif
#include "test.h"

#ifndef _WIN32
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#endif

//================================================================================================
// Systems: memory that ends where reading stops, sockets of the OS's own
//================================================================================================

enum { GUARD_ROOM = 4096 };

#ifdef _WIN32
typedef SOCKET os_socket;
typedef int os_len;
enum { ON_LINUX = 0 };

static bool os_socket_ok(os_socket s) { return s != INVALID_SOCKET; }
static void os_close(os_socket s) { closesocket(s); }

static void os_start(void)
{
    WSADATA data; // this test may be the first to call Winsock
    if (WSAStartup(MAKEWORD(2, 2), &data) != 0) SKIP("no Winsock");
}

static unsigned char *guard_make(void)
{
    DWORD old;
    unsigned char *p = (unsigned char *)VirtualAlloc(NULL, 2 * GUARD_ROOM, MEM_COMMIT | MEM_RESERVE,
                                                     PAGE_READWRITE);
    if (!p || !VirtualProtect(p + GUARD_ROOM, GUARD_ROOM, PAGE_NOACCESS, &old)) return NULL;
    return p + GUARD_ROOM;
}

// ws2tcpip.h has no sockaddr_un; this is the one of afunix.h.
struct sockaddr_un {
    unsigned short sun_family;
    char sun_path[108];
};
#else
typedef int os_socket;
typedef socklen_t os_len;
#ifdef __linux__
enum { ON_LINUX = 1 };
#else
enum { ON_LINUX = 0 };
#endif

static bool os_socket_ok(os_socket s) { return s >= 0; }
static void os_close(os_socket s) { close(s); }
static void os_start(void) {}

static unsigned char *guard_make(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect((char *)p + page, page, PROT_NONE) != 0) return NULL;
    return (unsigned char *)p + page;
}
#endif

static unsigned char *guard_end; // the first byte that may not be touched; GUARD_ROOM lie before it

// A copy of `len` bytes that ends at the guard page: one byte too far is a crash.
static char *guarded(const void *bytes, size_t len)
{
    if (!guard_end) guard_end = guard_make();
    CHECK(guard_end != NULL && len <= GUARD_ROOM);
    if (len) memcpy(guard_end - len, bytes, len);
    return (char *)guard_end - len;
}

//================================================================================================
// Helpers
//================================================================================================

enum { FILL = 0xC7 };

#ifdef NETIO_NO_UNIX
enum { HAS_UNIX = 0 };
#else
enum { HAS_UNIX = 1 };
#endif

static void need_unix(void)
{
    if (!HAS_UNIX) SKIP("built without Unix sockets");
}

static void fill_pattern(netio_addr *a) { memset(a, FILL, sizeof *a); }

static bool is_pattern(const netio_addr *a)
{
    const unsigned char *p = (const unsigned char *)a;
    for (size_t i = 0; i < sizeof *a; i++)
        if (p[i] != FILL) return false;
    return true;
}

// Parse where it is expected to work; names the text that failed.
static netio_addr address(const char *text)
{
    netio_addr a;
    int err = netio_addr_parse(&a, text, strlen(text));
    if (err < 0) test_fail(__FILE__, __LINE__, "parse \"%s\": %s", text, netio_errname(err));
    return a;
}

// An address of a bare host, by way of the endpoint text: "::1" or "127.0.0.1".
static netio_addr host_address(const char *host)
{
    char text[NETIO_ADDR_TEXT];
    snprintf(text, sizeof text, strchr(host, ':') ? "[%s]:7" : "%s:7", host);
    return address(text);
}

static const char *text_of(const netio_addr *a)
{
    static char buf[4][NETIO_ADDR_TEXT];
    static unsigned next;
    char *out = buf[next++ % 4];
    int n = netio_addr_format(a, out, NETIO_ADDR_TEXT);
    if (n < 0) return netio_errname(n);
    return (size_t)n == strlen(out) ? out : "a length that is not the text's";
}

static const char *hex_of(netio_buf bytes)
{
    static char out[33];
    const unsigned char *p = (const unsigned char *)bytes.data;
    out[0] = 0;
    for (size_t i = 0; i < bytes.len && i < 16; i++) snprintf(out + 2 * i, 3, "%02x", p[i]);
    return out;
}

// How many random addresses: fewer where each instruction is translated.
static int rounds(void)
{
    return test_under("valgrind") || test_under("qemu") || test_under("wine") ? 10000 : 100000;
}

static bool same_value(const netio_addr *a, const netio_addr *b)
{
    return a->len == b->len && a->dual == b->dual && memcmp(a->raw, b->raw, a->len) == 0;
}

// The RFC 5952 form of 16 bytes, from its section 4; section 5 for mapped addresses alone.
static void rfc5952(char *out, const unsigned char ip[16])
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    unsigned group[8], best = 8, best_len = 1; // a single zero group is not shortened (4.2.2)
    if (memcmp(ip, mapped, 12) == 0) {
        sprintf(out, "::ffff:%u.%u.%u.%u", ip[12], ip[13], ip[14], ip[15]);
        return;
    }
    for (unsigned i = 0; i < 8; i++) group[i] = (unsigned)ip[2 * i] << 8 | ip[2 * i + 1];
    for (unsigned i = 0; i < 8; i++) {
        unsigned n = 0;
        while (i + n < 8 && group[i + n] == 0) n++;
        if (n > best_len) best = i, best_len = n; // the first of equal runs (4.2.3)
    }
    for (unsigned i = 0; i < 8;) {
        if (i == best) {
            out += sprintf(out, "::");
            i += best_len;
        } else {
            out += sprintf(out, i == 0 || i == best + best_len ? "%x" : ":%x", group[i]);
            i++;
        }
    }
}

//================================================================================================
// Parsing
//================================================================================================

// `bytes` in hexadecimal; `canonical` NULL: the text itself.
typedef struct good_text {
    const char *text;
    int family;
    unsigned port;
    const char *bytes;
    const char *canonical;
} good_text;

// clang-format off
#define Z4 "00000000"
static const good_text good[] = {
    {"192.0.2.1:80", 4, 80, "c0000201", NULL},
    {"0.0.0.0:0", 4, 0, Z4, NULL},
    {"255.255.255.255:65535", 4, 65535, "ffffffff", NULL},
    {"127.0.0.1:1", 4, 1, "7f000001", NULL},
    {"1.2.3.4:80", 4, 80, "01020304", NULL},
    {"10.20.30.40:9", 4, 9, "0a141e28", NULL},
    {"100.200.0.99:10000", 4, 10000, "64c80063", NULL},
    {"249.250.199.200:65534", 4, 65534, "f9fac7c8", NULL},
    {"8.8.8.8:53", 4, 53, "08080808", NULL},
    {"0.0.0.1:5", 4, 5, "00000001", NULL},
    {"1.0.0.0:5", 4, 5, "01000000", NULL},
    {"224.0.0.251:5353", 4, 5353, "e00000fb", NULL},

    // RFC 4291 section 2.2, its own examples.
    {"[ABCD:EF01:2345:6789:ABCD:EF01:2345:6789]:1", 6, 1, "abcdef0123456789abcdef0123456789",
     "[abcd:ef01:2345:6789:abcd:ef01:2345:6789]:1"},
    {"[2001:DB8:0:0:8:800:200C:417A]:1", 6, 1, "20010db8" Z4 "00080800200c417a",
     "[2001:db8::8:800:200c:417a]:1"},
    {"[FF01:0:0:0:0:0:0:101]:1", 6, 1, "ff010000" Z4 Z4 "00000101", "[ff01::101]:1"},
    {"[0:0:0:0:0:0:0:1]:1", 6, 1, Z4 Z4 Z4 "00000001", "[::1]:1"},
    {"[0:0:0:0:0:0:0:0]:1", 6, 1, Z4 Z4 Z4 Z4, "[::]:1"},
    {"[2001:DB8::8:800:200C:417A]:1", 6, 1, "20010db8" Z4 "00080800200c417a",
     "[2001:db8::8:800:200c:417a]:1"},
    {"[FF01::101]:1", 6, 1, "ff010000" Z4 Z4 "00000101", "[ff01::101]:1"},
    {"[::1]:1", 6, 1, Z4 Z4 Z4 "00000001", NULL},
    {"[::]:1", 6, 1, Z4 Z4 Z4 Z4, NULL},
    {"[0:0:0:0:0:FFFF:129.144.52.38]:1", 6, 1, Z4 Z4 "0000ffff81903426",
     "[::ffff:129.144.52.38]:1"},
    {"[::FFFF:129.144.52.38]:1", 6, 1, Z4 Z4 "0000ffff81903426", "[::ffff:129.144.52.38]:1"},
    {"[::ffff:8190:3426]:1", 6, 1, Z4 Z4 "0000ffff81903426", "[::ffff:129.144.52.38]:1"},
    {"[1:2:3:4:5:6:255.254.253.252]:1", 6, 1, "000100020003000400050006fffefdfc",
     "[1:2:3:4:5:6:fffe:fdfc]:1"},
    {"[1::255.254.253.252]:1", 6, 1, "00010000" Z4 Z4 "fffefdfc", "[1::fffe:fdfc]:1"},
    {"[1:2:3:4:5::1.2.3.4]:1", 6, 1, "00010002000300040005000001020304",
     "[1:2:3:4:5:0:102:304]:1"},

    // RFC 5952 section 4.
    {"[2001:0db8::0001]:1", 6, 1, "20010db8" Z4 Z4 "00000001", "[2001:db8::1]:1"},
    {"[2001:db8:0:0:0:0:2:1]:1", 6, 1, "20010db8" Z4 Z4 "00020001", "[2001:db8::2:1]:1"},
    {"[2001:db8::0:1]:1", 6, 1, "20010db8" Z4 Z4 "00000001", "[2001:db8::1]:1"},
    {"[2001:db8:0:1:1:1:1:1]:1", 6, 1, "20010db8000000010001000100010001", NULL},
    {"[2001:db8::1:1:1:1:1]:1", 6, 1, "20010db8000000010001000100010001",
     "[2001:db8:0:1:1:1:1:1]:1"},
    {"[2001:0:0:1:0:0:0:1]:1", 6, 1, "200100000000000100000000" "00000001", "[2001:0:0:1::1]:1"},
    {"[2001:db8:0:0:1:0:0:1]:1", 6, 1, "20010db8000000000001000000000001", "[2001:db8::1:0:0:1]:1"},
    {"[2001:db8::1:0:0:1]:1", 6, 1, "20010db8000000000001000000000001", NULL},
    {"[2001:DB8::A]:1", 6, 1, "20010db8" Z4 Z4 "0000000a", "[2001:db8::a]:1"},
    {"[0:0:1:0:0:2:3:4]:1", 6, 1, "00000000000100000000000200030004", "[::1:0:0:2:3:4]:1"},
    {"[1:0:0:2:0:0:0:3]:1", 6, 1, "00010000000000020000000000000003", "[1:0:0:2::3]:1"},
    {"[0:1:0:1:0:1:0:1]:1", 6, 1, "00000001000000010000000100000001", NULL},
    {"[1:0:1:0:1:0:1:0]:1", 6, 1, "00010000000100000001000000010000", NULL},
    {"[1:2:3:4:5:6:0:0]:1", 6, 1, "00010002000300040005000600000000", "[1:2:3:4:5:6::]:1"},
    {"[0:0:3:4:5:6:7:8]:1", 6, 1, "00000000000300040005000600070008", "[::3:4:5:6:7:8]:1"},

    // "::" may stand for one group, at any place.
    {"[1:2:3:4:5:6:7::]:1", 6, 1, "00010002000300040005000600070000", "[1:2:3:4:5:6:7:0]:1"},
    {"[::2:3:4:5:6:7:8]:1", 6, 1, "00000002000300040005000600070008", "[0:2:3:4:5:6:7:8]:1"},
    {"[1:2:3::5:6:7:8]:1", 6, 1, "00010002000300000005000600070008", "[1:2:3:0:5:6:7:8]:1"},
    {"[1:2:3:4:5:6:7:8]:1", 6, 1, "00010002000300040005000600070008", NULL},
    {"[1::]:1", 6, 1, "00010000" Z4 Z4 Z4, NULL},
    {"[1::8]:1", 6, 1, "00010000" Z4 Z4 "00000008", NULL},
    {"[0001:0002:0003:0004:0005:0006:0007:0008]:1", 6, 1, "00010002000300040005000600070008",
     "[1:2:3:4:5:6:7:8]:1"},
    {"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", 6, 65535,
     "ffffffffffffffffffffffffffffffff", NULL},
    {"[fe80::1]:9", 6, 9, "fe800000" Z4 Z4 "00000001", NULL},
    {"[fe80::aBcD:Ef]:9", 6, 9, "fe800000" Z4 Z4 "abcd00ef", "[fe80::abcd:ef]:9"},
    {"[ff02::1]:9", 6, 9, "ff020000" Z4 Z4 "00000001", NULL},
    {"[::ffff:0.0.0.0]:9", 6, 9, Z4 Z4 "0000ffff00000000", NULL},
    {"[::fffe:1.2.3.4]:9", 6, 9, Z4 Z4 "0000fffe01020304", "[::fffe:102:304]:9"},
    {"[::1:1.2.3.4]:9", 6, 9, Z4 Z4 "0000000101020304", "[::1:102:304]:9"},

    // A zone that no interface of this machine has stays a number.
    {"[fe80::1%4000000000]:9", 6, 9, "fe800000" Z4 Z4 "00000001", NULL},
    {"[ff02::1%3999999999]:9", 6, 9, "ff020000" Z4 Z4 "00000001", NULL},
    {"[febf::%2147483648]:9", 6, 9, "febf0000" Z4 Z4 Z4, NULL},

    // Any interface, both families.
    {":8080", 6, 8080, Z4 Z4 Z4 Z4, "[::]:8080"},
    {"*:8080", 6, 8080, Z4 Z4 Z4 Z4, "[::]:8080"},
    {":0", 6, 0, Z4 Z4 Z4 Z4, "[::]:0"},
    {"*:65535", 6, 65535, Z4 Z4 Z4 Z4, "[::]:65535"},
    {":1", 6, 1, Z4 Z4 Z4 Z4, "[::]:1"},
};

static const good_text good_unix[] = {
    {"unix:/run/app.sock", 1, 0, "", NULL},
    {"unix:/", 1, 0, "", NULL},
    {"unix:relative.sock", 1, 0, "", NULL},
    {"unix:a", 1, 0, "", NULL},
    {"unix:/with space/and:colon/[x]:80", 1, 0, "", NULL},
    {"unix:/p\xc3\xa4th", 1, 0, "", NULL},
    {"unix:unix:/x", 1, 0, "", NULL},
};

static const good_text good_abstract[] = {
    {"unix:@app", 1, 0, "", NULL},
    {"unix:@@two", 1, 0, "", NULL},
    {"unix:@/looks/like/a/path", 1, 0, "", NULL},
    {"unix:@a:80", 1, 0, "", NULL},
};

typedef struct bad_text {
    const char *text;
    size_t len;
} bad_text;

#define BAD(text) {text, sizeof(text) - 1}
static const bad_text bad[] = { // all NETIO_EINVAL
    // No port, or none that is one.
    BAD(""), BAD(":"), BAD("*"), BAD("*:"), BAD("1.2.3.4"), BAD("1.2.3.4:"), BAD("[::1]"),
    BAD("[::1]:"), BAD("::1"), BAD("80"), BAD("[]"), BAD("["), BAD("]"), BAD("]:80"),
    BAD("1.2.3.4:-1"), BAD("1.2.3.4:+80"), BAD("1.2.3.4:65536"), BAD("1.2.3.4:70000"),
    BAD("1.2.3.4:4294967376"), BAD("1.2.3.4:18446744073709551696"), BAD(":99999"),
    BAD(":100000000000000000000000000000000000080"), BAD("1.2.3.4:80x"), BAD("1.2.3.4:x80"),
    BAD("1.2.3.4:8 0"), BAD("1.2.3.4: 80"), BAD("1.2.3.4:80 "), BAD("1.2.3.4:80\n"),
    BAD("1.2.3.4:0x50"), BAD("1.2.3.4:http"), BAD(":http"), BAD("1.2.3.4:080"), BAD("[::1]:00"),
    BAD("1.2.3.4:80:80"), BAD(":80:80"), BAD("::80"), BAD("1.2.3.4:8.0"), BAD("1.2.3.4:80/tcp"),
    // NUL inside.
    BAD("\0"), BAD("1.2.3.4:80\0"), BAD("1.2.3.4\0:80"), BAD("1.2.3.4:8\0" "0"), BAD("\0:80"),
    BAD("[::1\0]:80"), BAD("[::1]:80\0"), BAD(":80\0"), BAD("[fe80::1%1\0]:80"),
    // IPv4: neither octal nor hexadecimal, neither fewer parts nor more.
    BAD("01.2.3.4:80"), BAD("1.2.3.04:80"), BAD("1.2.00.4:80"), BAD("010.0.0.1:80"),
    BAD("0x7f.0.0.1:80"), BAD("0x7f.1:80"), BAD("127.1:80"), BAD("1.2.3:80"), BAD("1:80"),
    BAD("2130706433:80"), BAD("1.2.3.4.5:80"), BAD("1.2.3.4.:80"), BAD(".1.2.3.4:80"),
    BAD("1..3.4:80"), BAD("1.2.3.:80"), BAD("256.2.3.4:80"), BAD("1.2.3.256:80"),
    BAD("1.2.3.1000:80"), BAD("1.2.3.4294967300:80"), BAD("-1.2.3.4:80"), BAD("+1.2.3.4:80"),
    BAD("1.2.3.a:80"), BAD(" 1.2.3.4:80"), BAD("1.2.3.4 :80"), BAD("1.2.3.4%lo:80"),
    BAD("1.2.3.4/8:80"), BAD("1,2,3,4:80"), BAD("\xd9\xa1.2.3.4:80"), BAD("1.2.3.4;80"),
    BAD("*.*.*.*:80"), BAD("**:80"), BAD("*1.2.3.4:80"), BAD("[1.2.3.4]:80"), BAD("[*]:80"),
    // IPv6.
    BAD("::1:80"), BAD("2001:db8::1:80"), BAD("1:2:3:4:5:6:7:8:80"), BAD("[::1:80"),
    BAD("::1]:80"), BAD("[]:80"), BAD("[:]:80"), BAD("[:::]:80"), BAD("[::::]:80"),
    BAD("[1:2:3:4:5:6:7]:80"), BAD("[1:2:3:4:5:6:7:8:9]:80"), BAD("[1::2::3]:80"),
    BAD("[::1::]:80"), BAD("[12345::]:80"), BAD("[::00001]:80"), BAD("[::g]:80"), BAD("[1:]:80"),
    BAD("[1:2:3:4:5:6:7:]:80"), BAD("[:1]:80"), BAD("[:1:2:3:4:5:6:7:8]:80"),
    BAD("[1:2:3:4:5:6:7:8::]:80"), BAD("[::1:2:3:4:5:6:7:8]:80"), BAD("[1:2:3:4::5:6:7:8]:80"),
    BAD("[1]:80"), BAD("[::-1]:80"), BAD("[::0x1]:80"), BAD("[:: 1]:80"), BAD("[ ::1]:80"),
    BAD("[::1 ]:80"), BAD("[::1]x:80"), BAD("[::1]80"), BAD("[::1]::80"), BAD("[[::1]]:80"),
    BAD("[::1]]:80"), BAD("x[::1]:80"), BAD("[::1/64]:80"), BAD("[::1"), BAD("[::1]:80]"),
    // IPv4 inside IPv6.
    BAD("[::1.2.3]:80"), BAD("[::01.2.3.4]:80"), BAD("[::256.1.1.1]:80"), BAD("[::1.2.3.4.5]:80"),
    BAD("[::1.2.3.4:5]:80"), BAD("[1.2.3.4::]:80"), BAD("[1:2:3:4:5:6:7:1.2.3.4]:80"),
    BAD("[1:2:3:4:5:1.2.3.4]:80"), BAD("[1:2:3:4:5:6::1.2.3.4]:80"), BAD("[::1.2.3.]:80"),
    BAD("[::.1.2.3]:80"), BAD("[::ffff:1.2.3.a]:80"), BAD("[::a.2.3.4]:80"),
    BAD("[::ffff1.2.3.4]:80"),
    // Zones: not empty, and only where there is a link.
    BAD("[fe80::1%]:80"), BAD("[2001:db8::1%1]:80"), BAD("[::1%1]:80"), BAD("[::%1]:80"),
    BAD("[fec0::1%1]:80"), BAD("[fe7f::1%1]:80"), BAD("[ff05::1%1]:80"), BAD("[ff0e::1%1]:80"),
    BAD("[::ffff:1.2.3.4%1]:80"), BAD("[%1]:80"), BAD("[fe80::1%1:80"), BAD("[fe80%1::1]:80"),
    BAD("fe80::1%1:80"),
    // Names are not resolved here, and no other scheme is known.
    BAD("localhost:80"), BAD("example.com:80"), BAD("unix"), BAD("unix:"), BAD("UNIX:/x"),
    BAD("unix:/a\0b"), BAD("unix:/a\0"), BAD("unix:\0/a"), BAD("http://1.2.3.4:80"),
    BAD("tcp:1.2.3.4:80"), BAD("unix/x:80"),
};
// clang-format on

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static void check_good(const good_text *t)
{
    netio_addr a, again;
    const char *want = t->canonical ? t->canonical : t->text;
    int err;

    fill_pattern(&a);
    err = netio_addr_parse(&a, guarded(t->text, strlen(t->text)), strlen(t->text));
    if (err < 0) test_fail(__FILE__, __LINE__, "\"%s\": %s", t->text, netio_errname(err));
    if (netio_addr_family(&a) != t->family || netio_addr_port(&a) != t->port)
        test_fail(__FILE__, __LINE__, "\"%s\": family %d, port %u", t->text, netio_addr_family(&a),
                  netio_addr_port(&a));
    CHECK_STR(t->bytes, hex_of(netio_addr_ip(&a)));
    CHECK_STR(want, text_of(&a));
    CHECK_EQ(t->text[0] == ':' || t->text[0] == '*', a.dual);

    again = address(want);
    again.dual = a.dual; // the text "[::]:p" is not the dual one
    CHECK(same_value(&a, &again));
    CHECK(netio_addr_equal(&a, &again));
}

TEST(addr, parse_accepts_the_good_table)
{
    CHECK(COUNT(good) >= 60);
    for (size_t i = 0; i < COUNT(good); i++) check_good(&good[i]);
}

// What this build or system does not have is refused by name.
static void check_unix(const good_text *t, bool has)
{
    netio_addr a;
    if (has) {
        check_good(t);
        return;
    }
    fill_pattern(&a);
    CHECK_ERR(NETIO_ENOTSUP, netio_addr_parse(&a, t->text, strlen(t->text)));
    CHECK(is_pattern(&a));
}

TEST(addr, parse_accepts_unix_paths)
{
    for (size_t i = 0; i < COUNT(good_unix); i++) check_unix(&good_unix[i], HAS_UNIX);
    for (size_t i = 0; i < COUNT(good_abstract); i++)
        check_unix(&good_abstract[i], HAS_UNIX && ON_LINUX);
}

TEST(addr, parse_rejects_the_bad_table_and_leaves_the_output)
{
    netio_addr a;
    CHECK(COUNT(bad) >= 60);
    for (size_t i = 0; i < COUNT(bad); i++) {
        bool no_unix = !HAS_UNIX && strncmp(bad[i].text, "unix:", 5) == 0;
        int err;
        fill_pattern(&a);
        err = netio_addr_parse(&a, guarded(bad[i].text, bad[i].len), bad[i].len);
        if (err != (no_unix ? NETIO_ENOTSUP : NETIO_EINVAL))
            test_fail(__FILE__, __LINE__, "%lu: \"%s\": %s", (unsigned long)i, bad[i].text,
                      netio_errname(err));
        CHECK(is_pattern(&a));
    }
}

TEST(addr, parse_rejects_every_byte_that_does_not_belong)
{
    static const char model[] = "1.2.3.4:80", model6[] = "[2001:db8::1]:80";
    char text[32];
    netio_addr a;
    for (int c = 0; c < 256; c++) {
        bool digit = c >= '0' && c <= '9';
        for (size_t at = 0; at <= sizeof model - 1; at++) { // one byte put in, anywhere
            memcpy(text, model, at);
            text[at] = (char)c;
            memcpy(text + at + 1, model + at, sizeof model - 1 - at);
            fill_pattern(&a);
            if (netio_addr_parse(&a, guarded(text, sizeof model), sizeof model) < 0)
                CHECK(is_pattern(&a));
            else if (!digit)
                test_fail(__FILE__, __LINE__, "byte %d at %lu", c, (unsigned long)at);
        }
        for (size_t at = 0; at < sizeof model6 - 1; at++) { // one byte replaced, anywhere
            if (model6[at] == (char)c) continue;
            memcpy(text, model6, sizeof model6);
            text[at] = (char)c;
            fill_pattern(&a);
            if (netio_addr_parse(&a, guarded(text, sizeof model6 - 1), sizeof model6 - 1) < 0)
                CHECK(is_pattern(&a));
            else if (!digit && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F') && c != ':')
                test_fail(__FILE__, __LINE__, "byte %d at %lu", c, (unsigned long)at);
        }
    }
}

// What lies behind `len` must not matter: the same bytes at a guard page, followed by the rest of
// the text, and followed by a NUL give the same answer.
static void check_every_length(const char *text, size_t len)
{
    for (size_t cut = 0; cut <= len; cut++) {
        char alone[256];
        netio_addr a, b, c;
        int err;
        memcpy(alone, text, cut);
        alone[cut] = 0;
        fill_pattern(&a);
        fill_pattern(&b);
        fill_pattern(&c);
        err = netio_addr_parse(&a, guarded(text, cut), cut);
        CHECK_ERR(err, netio_addr_parse(&b, text, cut));
        CHECK_ERR(err, netio_addr_parse(&c, alone, cut));
        CHECK(err == 0 || (err < 0 && strcmp(netio_errname(err), "EUNKNOWN") != 0));
        if (err < 0) {
            CHECK(is_pattern(&a) && is_pattern(&b) && is_pattern(&c));
        } else {
            CHECK(same_value(&a, &b) && same_value(&a, &c));
            CHECK(netio_addr_equal(&a, &b));
        }
    }
}

TEST(addr, parse_reads_no_byte_behind_its_length)
{
    for (size_t i = 0; i < COUNT(good); i++) check_every_length(good[i].text, strlen(good[i].text));
    for (size_t i = 0; i < COUNT(good_unix); i++)
        check_every_length(good_unix[i].text, strlen(good_unix[i].text));
    for (size_t i = 0; i < COUNT(good_abstract); i++)
        check_every_length(good_abstract[i].text, strlen(good_abstract[i].text));
    for (size_t i = 0; i < COUNT(bad); i++) check_every_length(bad[i].text, bad[i].len);
}

TEST(addr, parse_takes_nothing_for_an_address)
{
    netio_addr a;
    fill_pattern(&a);
    CHECK_ERR(NETIO_EINVAL, netio_addr_parse(&a, NULL, 0));
    CHECK_ERR(NETIO_EINVAL, netio_addr_parse(&a, "", 0));
    CHECK_ERR(NETIO_EINVAL, netio_addr_parse(NULL, "1.2.3.4:80", 10));
    CHECK(is_pattern(&a));
}

TEST(addr, parse_survives_any_bytes)
{
    uint32_t seed = 20;
    for (int round = 0; round < 20000; round++) {
        static const char alphabet[] = "0123456789abcdefABCDEF:::...[[]]%*@unixlo/ \n";
        unsigned char text[64];
        size_t len = test_random(&seed) % sizeof text, letters = sizeof alphabet - 1;
        netio_addr a;
        for (size_t i = 0; i < len; i++)
            text[i] = (unsigned char)(round % 2 ? (uint32_t)alphabet[test_random(&seed) % letters]
                                                : test_random(&seed));
        fill_pattern(&a);
        if (netio_addr_parse(&a, guarded(text, len), len) < 0) CHECK(is_pattern(&a));
        else CHECK(netio_addr_family(&a) != 0);
    }
}

TEST(addr, long_text_is_refused_in_linear_time)
{
    size_t len = 1u << 20;
    char *text = (char *)malloc(len);
    netio_addr a;
    uint64_t start = test_ms();
    CHECK(text != NULL);
    fill_pattern(&a);
    memset(text, '1', len);
    CHECK_ERR(NETIO_EINVAL, netio_addr_parse(&a, text, len));
    memset(text, ':', len);
    CHECK_ERR(NETIO_EINVAL, netio_addr_parse(&a, text, len));
    text[0] = '[';
    CHECK_ERR(NETIO_EINVAL, netio_addr_parse(&a, text, len));
    memset(text, '.', len);
    CHECK_ERR(NETIO_EINVAL, netio_addr_parse(&a, text, len));
    memset(text, 'a', len);
    memcpy(text, "unix:", 5);
    CHECK_ERR(HAS_UNIX ? NETIO_ENAMETOOLONG : NETIO_ENOTSUP, netio_addr_parse(&a, text, len));
    memset(text, '0', len);
    memcpy(text, "[fe80::1%", 9);
    memcpy(text + len - 4, "1]:9", 4);
    CHECK(netio_addr_parse(&a, text, len) < 0);
    CHECK(is_pattern(&a));
    free(text);
    CHECK(test_ms() - start < 2000);
}

TEST(addr, path_that_does_not_fit_is_refused)
{
    size_t room = sizeof((struct sockaddr_un *)0)->sun_path;
    char text[400] = "unix:";
    netio_addr a, b;
    need_unix();
    memset(text + 5, 'p', sizeof text - 5);
    text[5] = '/';
    for (size_t len = 1; len < 300; len++) {
        int err;
        fill_pattern(&a);
        err = netio_addr_parse(&a, guarded(text, 5 + len), 5 + len);
        if (len < room) { // with its NUL it fits everywhere
            char back[NETIO_ADDR_TEXT];
            CHECK_OK(err);
            CHECK_EQ(5 + len, netio_addr_format(&a, back, sizeof back));
            CHECK_MEM(text, back, 5 + len);
            CHECK_OK(netio_addr_from_path(&b, guarded(text + 5, len), len));
            CHECK(same_value(&a, &b));
        } else if (len > room) {
            CHECK_ERR(NETIO_ENAMETOOLONG, err);
            CHECK(is_pattern(&a));
            CHECK_ERR(NETIO_ENAMETOOLONG, netio_addr_from_path(&a, text + 5, len));
            CHECK(is_pattern(&a));
        } else if (err < 0) { // exactly sun_path, without NUL: either way, but the same both ways
            CHECK_ERR(NETIO_ENAMETOOLONG, err);
            CHECK(is_pattern(&a));
            CHECK_ERR(NETIO_ENAMETOOLONG, netio_addr_from_path(&a, text + 5, len));
        } else {
            CHECK_OK(netio_addr_from_path(&b, text + 5, len));
            CHECK(same_value(&a, &b));
        }
    }
    if (!ON_LINUX) return;
    text[5] = '@'; // becomes the NUL in front, so the name has one byte less than a path
    for (size_t len = 2; len < 300; len++) {
        int err;
        fill_pattern(&a);
        err = netio_addr_parse(&a, guarded(text, 5 + len), 5 + len);
        if (len <= room) {
            char back[NETIO_ADDR_TEXT];
            CHECK_OK(err);
            CHECK_EQ(5 + len, netio_addr_format(&a, back, sizeof back));
            CHECK_MEM(text, back, 5 + len);
        } else {
            CHECK_ERR(NETIO_ENAMETOOLONG, err);
            CHECK(is_pattern(&a));
        }
    }
}

//================================================================================================
// Zones
//================================================================================================

// Number and name of the loopback interface; 0 if it cannot be found.
#ifdef _WIN32
static unsigned loopback_zone(char name[64])
{
    (void)name; // if_nametoindex is in iphlpapi, which is not linked here
    return 0;
}
#else
static unsigned loopback_zone(char name[64])
{
    static const char *const names[] = {"lo", "lo0"};
    for (size_t i = 0; i < COUNT(names); i++) {
        unsigned index = if_nametoindex(names[i]);
        if (index) return snprintf(name, 64, "%s", names[i]), index;
    }
    return 0;
}
#endif

TEST(addr, zone_by_name_and_by_number_are_one)
{
    char name[64], text[NETIO_ADDR_TEXT];
    unsigned index = loopback_zone(name);
    netio_addr by_name, by_number;
    if (!index) SKIP("the loopback interface's name is not known here");
    snprintf(text, sizeof text, "[fe80::1%%%s]:443", name);
    by_name = address(text);
    CHECK_STR(text, text_of(&by_name));
    CHECK_EQ(index, netio_addr_scope(&by_name));
    snprintf(text, sizeof text, "[fe80::1%%%u]:443", index);
    by_number = address(text);
    CHECK(same_value(&by_name, &by_number));
    CHECK(netio_addr_equal(&by_name, &by_number));
    CHECK_EQ(netio_addr_hash(&by_name), netio_addr_hash(&by_number));
    snprintf(text, sizeof text, "[ff02::fb%%%s]:5353", name);
    by_name = address(text);
    CHECK_STR(text, text_of(&by_name));
    CHECK_EQ(index, netio_addr_scope(&by_name));
    CHECK(netio_addr_format_host(&by_name, text, sizeof text) > 0);
    CHECK_MEM("ff02::fb%", text, 9);
    CHECK_STR(name, text + 9);
}

TEST(addr, zone_of_no_interface_is_enodev)
{
    static const char *const zones[] = {"nosuchif", "e", "lo ", "1x", "0x1", "%1",
                                        "a-name-longer-than-any-interface-may-have-0123456789"};
    char text[128];
    netio_addr a;
    fill_pattern(&a);
    CHECK_ERR(NETIO_ENODEV, netio_addr_parse(&a, "[fe80::1%nosuchif]:80", 21));
    CHECK(is_pattern(&a));
    for (size_t i = 0; i < COUNT(zones); i++) { // whatever the zone is not, it is not taken
        int len = snprintf(text, sizeof text, "[fe80::1%%%s]:80", zones[i]);
        int err = netio_addr_parse(&a, guarded(text, (size_t)len), (size_t)len);
        CHECK(err == NETIO_ENODEV || err == NETIO_EINVAL);
        CHECK(is_pattern(&a));
    }
}

TEST(addr, zone_numbers_keep_to_32_bits)
{
    static const char *const too_large[] = {"[fe80::1%4294967296]:80", "[fe80::1%4294967297]:80",
                                            "[fe80::1%18446744073709551617]:80"};
    netio_addr a = address("[fe80::1%4294967295]:80");
    CHECK_EQ(4294967295u, netio_addr_scope(&a));
    CHECK_STR("[fe80::1%4294967295]:80", text_of(&a));
    fill_pattern(&a);
    for (size_t i = 0; i < COUNT(too_large); i++) {
        int err = netio_addr_parse(&a, too_large[i], strlen(too_large[i]));
        CHECK(err == NETIO_EINVAL || err == NETIO_ENODEV);
        CHECK(is_pattern(&a));
    }
}

//================================================================================================
// Formatting
//================================================================================================

TEST(addr, format_needs_exactly_its_length_and_a_nul)
{
    static const char *const texts[] = {
        "1.2.3.4:5", "255.255.255.255:65535", "[::]:0", "[::1]:80",
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[::ffff:255.255.255.255]:65535",
        "[fe80::1%4294967295]:65535", "unix:/run/app.sock", "unix:x", "unix:@abstract"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        char whole[2][NETIO_ADDR_TEXT];
        netio_addr a;
        if (strchr(texts[i], '@') && !ON_LINUX) continue;
        if (texts[i][0] == 'u' && !HAS_UNIX) continue;
        a = address(texts[i]);
        CHECK_EQ(strlen(texts[i]), netio_addr_format(&a, whole[0], NETIO_ADDR_TEXT));
        CHECK_STR(texts[i], whole[0]);
        CHECK(netio_addr_format_host(&a, whole[1], NETIO_ADDR_TEXT) > 0);
        for (int host = 0; host < 2; host++) {
            size_t len = strlen(whole[host]);
            for (size_t cap = 0; cap <= len + 2; cap++) {
                char *buf, room[NETIO_ADDR_TEXT + 16];
                int n;
                memset(room, FILL, sizeof room);
                n = host ? netio_addr_format_host(&a, room + 8, cap)
                         : netio_addr_format(&a, room + 8, cap);
                for (size_t k = 0; k < 8; k++) CHECK_EQ(FILL, (unsigned char)room[k]);
                for (size_t k = 8 + cap; k < sizeof room; k++)
                    CHECK_EQ(FILL, (unsigned char)room[k]);
                CHECK_ERR(cap > len ? (ptrdiff_t)len : NETIO_ENOSPC, n);
                if (cap > 0) { // terminated, and a beginning of the whole
                    CHECK(memchr(room + 8, 0, cap) != NULL);
                    CHECK_MEM(whole[host], room + 8, strlen(room + 8));
                    CHECK(cap <= len || strcmp(whole[host], room + 8) == 0);
                }
                buf = guarded(room, cap); // and once more where one byte too far is a crash
                CHECK_ERR(n, host ? netio_addr_format_host(&a, buf, cap)
                                  : netio_addr_format(&a, buf, cap));
            }
        }
        CHECK_ERR(NETIO_ENOSPC, netio_addr_format(&a, NULL, 0));
        CHECK_ERR(NETIO_ENOSPC, netio_addr_format_host(&a, NULL, 0));
    }
}

TEST(addr, format_host_leaves_out_port_and_brackets)
{
    static const char *const pairs[][2] = {
        {"192.0.2.1:80", "192.0.2.1"},
        {"[2001:db8::1]:443", "2001:db8::1"},
        {"[::ffff:1.2.3.4]:1", "::ffff:1.2.3.4"},
        {"[fe80::1%4000000000]:9", "fe80::1%4000000000"},
        {":8080", "::"},
        {"0.0.0.0:1", "0.0.0.0"},
    };
    char host[NETIO_ADDR_TEXT];
    for (size_t i = 0; i < COUNT(pairs); i++) {
        netio_addr a = address(pairs[i][0]);
        CHECK_EQ(strlen(pairs[i][1]), netio_addr_format_host(&a, host, sizeof host));
        CHECK_STR(pairs[i][1], host);
    }
}

TEST(addr, format_of_no_address_is_einval)
{
    netio_addr none;
    char buf[NETIO_ADDR_TEXT];
    memset(&none, 0, sizeof none);
    CHECK_ERR(NETIO_EINVAL, netio_addr_format(&none, buf, sizeof buf));
    CHECK_ERR(NETIO_EINVAL, netio_addr_format_host(&none, buf, sizeof buf));
    CHECK_ERR(NETIO_EINVAL, netio_addr_format(&none, NULL, 0));
}

TEST(addr, the_documented_buffer_always_suffices)
{
    char text[300], buf[NETIO_ADDR_TEXT];
    size_t room = sizeof((struct sockaddr_un *)0)->sun_path;
    unsigned char bytes[128];
    netio_addr a;

    memset(text, 'x', sizeof text);
    for (size_t len = room - 1; len <= room; len++) {
        if (netio_addr_from_path(&a, text, len) < 0) continue; // the NUL may be wanted inside
        CHECK_EQ(5 + len, netio_addr_format(&a, buf, sizeof buf));
    }
    if (ON_LINUX && HAS_UNIX) {
        text[0] = '@';
        CHECK_OK(netio_addr_from_path(&a, text, room));
        CHECK_EQ(5 + room, netio_addr_format(&a, buf, sizeof buf));
    }
    a = address("[fe80:1111:2222:3333:4444:5555:6666:7777%4294967295]:65535");
    CHECK(netio_addr_format(&a, buf, sizeof buf) > 0);

    // Any bytes at all, of every length, in every family: formats, or says that it is none.
    for (int family = 0; family < 64; family++) {
        struct sockaddr head;
        memset(&head, 0, sizeof head);
        for (size_t len = 0; len <= sizeof bytes; len++) {
            int n;
            test_fill(bytes, sizeof bytes, (uint32_t)(family * 1000 + (int)len));
            head.sa_family = (unsigned char)family;
            memcpy(bytes, &head, offsetof(struct sockaddr, sa_data));
            if (netio_addr_from_sockaddr(&a, bytes, len) < 0) continue;
            memset(buf, FILL, sizeof buf);
            n = netio_addr_format(&a, buf, sizeof buf);
            CHECK(n == NETIO_EINVAL || (n > 0 && n < NETIO_ADDR_TEXT && buf[n] == 0));
            netio_addr_format_host(&a, buf, sizeof buf);
        }
    }
}

TEST(addr, an_unknown_family_is_kept_and_named_by_number)
{
#ifdef AF_NETLINK
    unsigned char bytes[12], back[NETIO_ADDR_TEXT];
    struct sockaddr head;
    netio_addr a, b;
    size_t len = 0;
    char want[32];
    test_fill(bytes, sizeof bytes, 7);
    memset(&head, 0, sizeof head);
    head.sa_family = AF_NETLINK;
    memcpy(bytes, &head, 2);
    CHECK_OK(netio_addr_from_sockaddr(&a, bytes, sizeof bytes));
    CHECK_EQ(-AF_NETLINK, netio_addr_family(&a));
    CHECK_MEM(bytes, netio_addr_sockaddr(&a, &len), sizeof bytes);
    CHECK_EQ(sizeof bytes, len);
    snprintf(want, sizeof want, "family:%d", AF_NETLINK);
    CHECK_STR(want, text_of(&a));
    CHECK_ERR(NETIO_EINVAL, netio_addr_parse(&b, want, strlen(want)));
    CHECK_EQ(0, netio_addr_port(&a));
    netio_addr_set_port(&a, 80); // no port there: nothing may change
    CHECK_MEM(bytes, netio_addr_sockaddr(&a, &len), sizeof bytes);
    CHECK_EQ(0, netio_addr_ip(&a).len);
    CHECK_EQ(0, netio_addr_class(&a));
    CHECK_EQ(0, netio_addr_scope(&a));
    CHECK_OK(netio_addr_from_sockaddr(&b, bytes, sizeof bytes));
    CHECK(netio_addr_equal(&a, &b));
    CHECK_EQ(netio_addr_hash(&a), netio_addr_hash(&b));
    bytes[11] ^= 1;
    CHECK_OK(netio_addr_from_sockaddr(&b, bytes, sizeof bytes));
    CHECK(!netio_addr_equal(&a, &b));
    (void)back;
#else
    SKIP("no family at hand that is neither IP nor Unix");
#endif
}

//================================================================================================
// There and back
//================================================================================================

// Zero runs are what formatting is about: half of the groups are zero.
static void random_ip6(unsigned char ip[16], uint32_t *seed)
{
    uint32_t zero = test_random(seed), shape = test_random(seed);
    for (int i = 0; i < 16; i += 2) {
        uint32_t r = test_random(seed);
        bool empty = (zero >> i & 1) != 0;
        ip[i] = (unsigned char)(empty || shape % 3 == 0 ? 0 : r >> 8);
        ip[i + 1] = (unsigned char)(empty ? 0 : r);
    }
    if (shape % 16 == 1) { // mapped
        memset(ip, 0, 10);
        memset(ip + 10, 0xff, 2);
    }
}

static void random_addr(netio_addr *out, uint32_t *seed)
{
    unsigned char ip[16];
    struct sockaddr_in6 in6;
    char path[128];
    uint16_t port = (uint16_t)(test_random(seed) >> 7);
    size_t len;
    uint32_t kind = test_random(seed) % (HAS_UNIX ? 100 : 75);
    random_ip6(ip, seed);
    if (kind < 40) {
        CHECK_OK(netio_addr_from_ip(out, ip, 16, port));
    } else if (kind < 70) {
        uint32_t v4 = test_random(seed);
        CHECK_OK(netio_addr_from_ip(out, &v4, 4, port));
    } else if (kind < 75) { // with a zone, which no interface has: each costs a question to the OS
        memset(&in6, 0, sizeof in6);
        in6.sin6_family = AF_INET6;
        ip[0] = 0xfe, ip[1] = 0x80;
        memcpy(&in6.sin6_addr, ip, 16);
        in6.sin6_port = port;
        in6.sin6_scope_id = test_random(seed);
        CHECK_OK(netio_addr_from_sockaddr(out, &in6, sizeof in6));
    } else {
        bool abstract = kind >= 90 && ON_LINUX;
        len = 2 + test_random(seed) % 90;
        test_fill(path, len, test_random(seed));
        for (size_t i = 0; i < len; i++)
            if (path[i] == 0 || (i == 0 && path[i] == '@')) path[i] = '/';
        if (abstract) path[0] = '@';
        CHECK_OK(netio_addr_from_path(out, path, len));
    }
}

TEST(addr, parse_of_format_is_identity_for_100000_addresses)
{
    uint32_t seed = 1;
    int count = rounds();
    for (int i = 0; i < count; i++) {
        char text[NETIO_ADDR_TEXT];
        netio_addr a, b;
        int n, err;
        random_addr(&a, &seed);
        n = netio_addr_format(&a, text, sizeof text);
        CHECK(n > 0);
        err = netio_addr_parse(&b, guarded(text, (size_t)n), (size_t)n);
        if (err < 0) test_fail(__FILE__, __LINE__, "\"%s\": %s", text, netio_errname(err));
        if (!same_value(&a, &b) || !netio_addr_equal(&a, &b))
            test_fail(__FILE__, __LINE__, "\"%s\" came back as \"%s\"", text, text_of(&b));
        CHECK_EQ(netio_addr_hash(&a), netio_addr_hash(&b));
    }
}

TEST(addr, format_follows_rfc_5952_for_random_addresses)
{
    uint32_t seed = 2;
    int count = rounds();
    for (int i = 0; i < count; i++) {
        char want[64], got[NETIO_ADDR_TEXT];
        unsigned char ip[16];
        bool compatible = true; // ::/96, for which RFC 5952 section 5 leaves both forms
        netio_addr a;
        random_ip6(ip, &seed);
        for (int k = 0; k < 12; k++) compatible = compatible && ip[k] == 0;
        rfc5952(want, ip);
        CHECK_OK(netio_addr_from_ip(&a, ip, 16, 1));
        CHECK(netio_addr_format_host(&a, got, sizeof got) > 0);
        if (!compatible) CHECK_STR(want, got);
    }
}

TEST(addr, format_of_every_zero_pattern_follows_rfc_5952)
{
    for (unsigned mask = 0; mask < 256; mask++) {
        char want[64], got[NETIO_ADDR_TEXT];
        unsigned char ip[16];
        netio_addr a;
        for (unsigned g = 0; g < 8; g++) {
            ip[2 * g] = 0;
            ip[2 * g + 1] = (unsigned char)(mask >> g & 1 ? g + 1 : 0);
        }
        if ((mask & 0x3f) == 0 && (mask & 0x40)) continue; // ::/96: two forms are right
        rfc5952(want, ip);
        CHECK_OK(netio_addr_from_ip(&a, ip, 16, 1));
        CHECK(netio_addr_format_host(&a, got, sizeof got) > 0);
        CHECK_STR(want, got);
    }
}

//================================================================================================
// A second opinion: inet_pton, inet_ntop
//================================================================================================

// The answer of netio for a bare host: 4, 6, or 0.
static int our_pton(const char *host, size_t len, unsigned char ip[16])
{
    char text[128];
    netio_addr a;
    bool v6 = memchr(host, ':', len) != NULL;
    int n;
    if (len > 100) return 0;
    n = v6 ? snprintf(text, sizeof text, "[%.*s]:1", (int)len, host)
           : snprintf(text, sizeof text, "%.*s:1", (int)len, host);
    if (netio_addr_parse(&a, text, (size_t)n) < 0) return 0;
    if (a.dual || netio_addr_ip(&a).len == 0) return 0; // "" and "*" are no hosts of inet_pton
    memcpy(ip, netio_addr_ip(&a).data, netio_addr_ip(&a).len);
    return netio_addr_family(&a);
}

static void compare_pton(const char *host)
{
    unsigned char ours[16], theirs[16];
    int our, their = 0;
    memset(ours, 0, sizeof ours);
    memset(theirs, 0, sizeof theirs);
    our = our_pton(host, strlen(host), ours);
    if (inet_pton(AF_INET, host, theirs) == 1) their = 4;
    else if (inet_pton(AF_INET6, host, theirs) == 1) their = 6;
#ifdef __linux__
    // glibc and musl are exactly as strict as netio is; neither takes a zone.
    if (our != their) test_fail(__FILE__, __LINE__, "\"%s\": %d, inet_pton %d", host, our, their);
#else
    // Others take more: leading zeros in IPv4 (macOS). What we take, they all must.
    if (our && our != their)
        test_fail(__FILE__, __LINE__, "\"%s\": %d, inet_pton %d", host, our, their);
#endif
    if (our && memcmp(ours, theirs, our == 4 ? 4 : 16) != 0)
        test_fail(__FILE__, __LINE__, "\"%s\": other bytes than inet_pton", host);
}

TEST(addr, parse_agrees_with_inet_pton)
{
    // clang-format off
    static const char *const seeds[] = {
        "1.2.3.4", "255.255.255.255", "0.0.0.0", "10.0.0.1", "192.168.100.200", "::", "::1", "1::",
        "2001:db8::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "fe80::abcd",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1.2.3.4", "1::8", "1:2:3::6:7:8",
        "64:ff9b::192.0.2.33", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "0:0:0:0:0:0:0:0",
    };
    static const char alphabet[] = "0123456789abcdefABCDEF::::....";
    // clang-format on
    uint32_t seed = 3;
    int count = rounds(), taken = 0;
    for (size_t i = 0; i < COUNT(seeds); i++) compare_pton(seeds[i]);
    for (size_t i = 0; i < COUNT(bad); i++) { // hosts of the bad table, where they are hosts alone
        netio_buf host, port;
        char copy[128];
        if (memchr(bad[i].text, 0, bad[i].len) || memchr(bad[i].text, '%', bad[i].len)) continue;
        if (netio_addr_split(&host, &port, bad[i].text, bad[i].len) < 0 || host.len > 100) continue;
        if (bad[i].text[0] == '[' && !memchr(host.data, ':', host.len)) continue; // "[1.2.3.4]"
        snprintf(copy, sizeof copy, "%.*s", (int)host.len, (const char *)host.data);
        compare_pton(copy);
    }
    for (int i = 0; i < count; i++) {
        char text[80];
        unsigned char ip[16];
        size_t len;
        if (i % 4 == 0) { // random text
            len = test_random(&seed) % 46;
            for (size_t k = 0; k < len; k++)
                text[k] = alphabet[test_random(&seed) % (sizeof alphabet - 1)];
            text[len] = 0;
        } else { // one to three changes to a good one
            snprintf(text, sizeof text, "%s", seeds[test_random(&seed) % COUNT(seeds)]);
            for (uint32_t change = test_random(&seed) % 3; change < 3; change++) {
                char c = alphabet[test_random(&seed) % (sizeof alphabet - 1)];
                size_t at;
                len = strlen(text);
                at = test_random(&seed) % (len + 1);
                switch (test_random(&seed) % 3) {
                case 0: // replace
                    if (at < len) text[at] = c;
                    break;
                case 1: // insert
                    memmove(text + at + 1, text + at, len + 1 - at);
                    text[at] = c;
                    break;
                default: // remove
                    if (at < len) memmove(text + at, text + at + 1, len - at);
                    break;
                }
            }
        }
        compare_pton(text);
        if (our_pton(text, strlen(text), ip)) taken++;
    }
    CHECK(taken > count / 50); // both answers occur, else nothing was compared
    CHECK(taken < count - count / 50);
}

TEST(addr, format_agrees_with_inet_ntop)
{
    uint32_t seed = 4;
    int count = rounds();
    for (int i = 0; i < count; i++) {
        unsigned char ip[16], back[16];
        char ours[NETIO_ADDR_TEXT], theirs[64];
        int family = i % 4 == 0 ? AF_INET : AF_INET6;
        size_t len = family == AF_INET ? 4 : 16;
        bool compatible = true;
        netio_addr a;
        random_ip6(ip, &seed);
        if (len == 4) test_fill(ip, 4, test_random(&seed));
        for (int k = 0; k < 12; k++) compatible = compatible && ip[k] == 0;
        CHECK_OK(netio_addr_from_ip(&a, ip, len, 0));
        CHECK(netio_addr_format_host(&a, ours, sizeof ours) > 0);
        CHECK(inet_ntop(family, ip, theirs, sizeof theirs) != NULL);
#ifdef __GLIBC__
        // glibc writes all of ::/96 as "::1.2.3.4" (RFC 5952 section 5 leaves it open); all else
        // must be the same. musl takes the last of equal zero runs where one is at the beginning,
        // others have their own habits: there the meaning alone is compared.
        if (len == 4 || !compatible) CHECK_STR(theirs, ours);
#endif
        CHECK_EQ(len == 4 ? 4 : 6, our_pton(theirs, strlen(theirs), back));
        CHECK_MEM(ip, back, len);
        CHECK_EQ(1, inet_pton(family, ours, back));
        CHECK_MEM(ip, back, len);
    }
}

//================================================================================================
// Splitting
//================================================================================================

TEST(addr, split_cuts_without_judging)
{
    static const char *const rows[][3] = {
        {"example.com:443", "example.com", "443"},
        {"1.2.3.4:80", "1.2.3.4", "80"},
        {"[::1]:80", "::1", "80"},
        {"[fe80::1%eth0]:9", "fe80::1%eth0", "9"},
        {":8080", "", "8080"},
        {"*:80", "*", "80"},
        {"host:http", "host", "http"},
        {"a b:c d", "a b", "c d"},
        {"1.2.3:99999", "1.2.3", "99999"},
        {"[anything]:x", "anything", "x"},
        {"\xff\xfe:\x80", "\xff\xfe", "\x80"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t len = strlen(rows[i][0]);
        const char *text = guarded(rows[i][0], len);
        netio_buf host, port;
        CHECK_OK(netio_addr_split(&host, &port, text, len));
        CHECK_EQ(strlen(rows[i][1]), host.len);
        CHECK_EQ(strlen(rows[i][2]), port.len);
        CHECK_MEM(rows[i][1], host.data, host.len);
        CHECK_MEM(rows[i][2], port.data, port.len);
        if (host.len) // inside the text, not copies
            CHECK((const char *)host.data >= text && (const char *)host.data < text + len);
        CHECK((const char *)port.data >= text && (const char *)port.data < text + len);
    }
}

TEST(addr, split_refuses_what_has_no_port)
{
    static const char *const rows[] = {"",      "host",     "1.2.3.4",      "::1",     "::1:80",
                                       "1:2:3", "[::1]",    "[::1",         "[::1:80", "[::1]80",
                                       "[",     "[::1]x:80", "2001:db8::1:80"};
    netio_buf host = {"h", 1}, port = {"p", 1};
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t len = strlen(rows[i]);
        int err = netio_addr_split(&host, &port, guarded(rows[i], len), len);
        if (err != NETIO_EINVAL)
            test_fail(__FILE__, __LINE__, "\"%s\": %s", rows[i], netio_errname(err));
        CHECK(host.len == 1 && port.len == 1 && *(const char *)host.data == 'h');
    }
    CHECK_ERR(NETIO_EINVAL, netio_addr_split(&host, &port, NULL, 0));
}

//================================================================================================
// Making addresses
//================================================================================================

TEST(addr, constructors_make_what_their_text_says)
{
    netio_addr a, b;
    CHECK_OK(netio_addr_any(&a, NETIO_IPV4, 80));
    CHECK_STR("0.0.0.0:80", text_of(&a));
    CHECK_EQ(0, a.dual);
    CHECK_OK(netio_addr_any(&a, NETIO_IPV6, 80));
    CHECK_STR("[::]:80", text_of(&a));
    CHECK_EQ(0, a.dual);
    CHECK_OK(netio_addr_any(&a, 0, 80));
    CHECK_STR("[::]:80", text_of(&a));
    CHECK_EQ(1, a.dual);
    b = address(":80");
    CHECK(same_value(&a, &b));
    CHECK_OK(netio_addr_loopback(&a, NETIO_IPV4, 65535));
    CHECK_STR("127.0.0.1:65535", text_of(&a));
    CHECK_OK(netio_addr_loopback(&a, NETIO_IPV6, 1));
    CHECK_STR("[::1]:1", text_of(&a));
    CHECK_OK(netio_addr_from_ip(&a, "\xff\xff\xff\xff", 4, 9)); // limited broadcast
    CHECK_STR("255.255.255.255:9", text_of(&a));
    CHECK_EQ(NETIO_ADDR_BROADCAST, netio_addr_class(&a));
    CHECK_OK(netio_addr_from_ip(&a, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01", 16, 443));
    CHECK_STR("[2001:db8::1]:443", text_of(&a));
    if (!HAS_UNIX) return;
    CHECK_OK(netio_addr_from_path(&a, "/run/x", 6));
    CHECK_STR("unix:/run/x", text_of(&a));
    CHECK_EQ(NETIO_UNIX, netio_addr_family(&a));
}

TEST(addr, constructors_refuse_and_leave_the_output)
{
    static const int families[] = {-1, 1, 2, 3, 5, 7, 10, 23, 30, 46};
    static const size_t lengths[] = {0, 1, 3, 5, 8, 15, 17, 32};
    static const bad_text paths[] = {BAD(""), BAD("/a\0b"), BAD("\0abstract"), BAD("/a\0")};
    netio_addr a;
    fill_pattern(&a);
    for (size_t i = 0; i < COUNT(families); i++) {
        CHECK_ERR(NETIO_EINVAL, netio_addr_any(&a, families[i], 1));
        CHECK_ERR(NETIO_EINVAL, netio_addr_loopback(&a, families[i], 1));
    }
    CHECK_ERR(NETIO_EINVAL, netio_addr_loopback(&a, 0, 1));
    CHECK_ERR(NETIO_EINVAL, netio_addr_from_ip(&a, NULL, 4, 1));
    CHECK_ERR(NETIO_EINVAL, netio_addr_from_ip(NULL, "1234", 4, 1));
    CHECK_ERR(NETIO_EINVAL, netio_addr_any(NULL, NETIO_IPV4, 1));
    for (size_t i = 0; i < COUNT(lengths); i++)
        CHECK_ERR(NETIO_EINVAL, netio_addr_from_ip(&a, guarded("0123456789abcdef0123456789abcdef",
                                                               lengths[i]), lengths[i], 1));
    for (size_t i = 0; i < COUNT(paths); i++)
        CHECK_ERR(HAS_UNIX ? NETIO_EINVAL : NETIO_ENOTSUP,
                  netio_addr_from_path(&a, paths[i].text, paths[i].len));
    if (!ON_LINUX) CHECK_ERR(NETIO_ENOTSUP, netio_addr_from_path(&a, "@name", 5));
    CHECK(is_pattern(&a));
}

TEST(addr, ports_are_read_and_set)
{
    netio_addr a = address("1.2.3.4:80"), none;
    CHECK_EQ(80, netio_addr_port(&a));
    netio_addr_set_port(&a, 65535);
    CHECK_STR("1.2.3.4:65535", text_of(&a));
    netio_addr_set_port(&a, 0);
    CHECK_STR("1.2.3.4:0", text_of(&a));
    a = address("[fe80::1%4000000000]:80");
    netio_addr_set_port(&a, 258);
    CHECK_STR("[fe80::1%4000000000]:258", text_of(&a));
    CHECK_EQ(258, netio_addr_port(&a));
    a = address(":1");
    netio_addr_set_port(&a, 2);
    CHECK_EQ(1, a.dual);
    CHECK_STR("[::]:2", text_of(&a));
    if (HAS_UNIX) {
        CHECK_OK(netio_addr_from_path(&a, "/run/x", 6));
        netio_addr_set_port(&a, 80);
        CHECK_EQ(0, netio_addr_port(&a));
        CHECK_STR("unix:/run/x", text_of(&a));
    }
    memset(&none, 0, sizeof none);
    netio_addr_set_port(&none, 80); // no address: stays none
    CHECK_EQ(0, netio_addr_port(&none));
    CHECK_EQ(0, netio_addr_family(&none));
    CHECK_EQ(0, netio_addr_ip(&none).len);
    CHECK_EQ(0, netio_addr_scope(&none));
    CHECK_EQ(0, netio_addr_class(&none));
    netio_addr_unmap(&none);
    CHECK_EQ(0, netio_addr_family(&none));
}

//================================================================================================
// The OS's own form
//================================================================================================

// getsockname of a socket bound to `text`, imported. SKIPs if this system has no such address.
static netio_addr bound_name(const char *text, bool again)
{
    netio_addr local = address(text), got;
    union {
        struct sockaddr any;
        struct sockaddr_in6 in6;
        unsigned char room[200];
    } name;
    os_len name_len = sizeof name;
    size_t len = 0;
    const void *sa = netio_addr_sockaddr(&local, &len);
    int family = netio_addr_family(&local) == NETIO_IPV4 ? AF_INET : AF_INET6;
    os_socket s;
    os_start();
    s = socket(family, SOCK_DGRAM, 0);
    if (!os_socket_ok(s)) SKIP("no socket of family %d", family);
    memset(&name, FILL, sizeof name);
    if (bind(s, (const struct sockaddr *)sa, (os_len)len) != 0) {
        os_close(s);
        if (again || family == AF_INET) test_fail(__FILE__, __LINE__, "bind to %s failed", text);
        SKIP("no IPv6 here: bind to %s failed", text);
    }
    CHECK_EQ(0, getsockname(s, &name.any, &name_len));
    os_close(s);
    CHECK_OK(netio_addr_from_sockaddr(&got, &name, (size_t)name_len));
    return got;
}

static void check_bind(const char *text, const char *host, unsigned class_of)
{
    char got[NETIO_ADDR_TEXT];
    netio_addr first = bound_name(text, false), second;
    CHECK(netio_addr_port(&first) != 0);
    CHECK(netio_addr_format_host(&first, got, sizeof got) > 0);
    CHECK_STR(host, got);
    CHECK_EQ(class_of, netio_addr_class(&first));
    second = bound_name(text_of(&first), true); // what the OS said is what it takes
    CHECK(netio_addr_equal(&first, &second));
    CHECK_EQ(netio_addr_hash(&first), netio_addr_hash(&second));
}

TEST(addr, the_os_binds_what_we_export_ipv4)
{
    check_bind("127.0.0.1:0", "127.0.0.1", NETIO_ADDR_LOOPBACK);
    check_bind("0.0.0.0:0", "0.0.0.0", NETIO_ADDR_ANY);
}

TEST(addr, the_os_binds_what_we_export_ipv6)
{
    check_bind("[::1]:0", "::1", NETIO_ADDR_LOOPBACK);
    check_bind(":0", "::", NETIO_ADDR_ANY);
}

#ifdef _WIN32
TEST(addr, the_os_binds_what_we_export_unix) { SKIP("no Unix datagram sockets on Windows"); }
TEST(addr, an_unnamed_unix_peer_is_an_address_without_a_path) { SKIP("none on Windows"); }
#else
TEST(addr, the_os_binds_what_we_export_unix)
{
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        unsigned char room[200];
    } name;
    char text[400];
    socklen_t name_len;
    size_t len = 0;
    need_unix();
    for (int round = 0; round < (ON_LINUX ? 3 : 1); round++) {
        netio_addr a, got;
        const void *sa;
        int s = socket(AF_UNIX, SOCK_DGRAM, 0);
        CHECK(s >= 0);
        if (round == 0) snprintf(text, sizeof text, "unix:%s", test_path("addr.sock"));
        else snprintf(text, sizeof text, "unix:@netio-test-%d-%d", round, (int)getpid());
        if (round == 2) { // an abstract name has all the room
            size_t used = strlen(text), full = 5 + sizeof name.un.sun_path;
            memset(text + used, 'x', full - used);
            text[full] = 0;
        }
        a = address(text);
        memset(&name, FILL, sizeof name);
        name_len = sizeof name;
        sa = netio_addr_sockaddr(&a, &len);
        CHECK_EQ(0, bind(s, (const struct sockaddr *)sa, (socklen_t)len));
        CHECK_EQ(0, getsockname(s, &name.any, &name_len));
        close(s);
        CHECK_OK(netio_addr_from_sockaddr(&got, &name, name_len));
        CHECK_STR(text, text_of(&got));
        CHECK(netio_addr_equal(&a, &got));
        CHECK(netio_addr_equal_host(&a, &got));
        CHECK_EQ(netio_addr_hash(&a), netio_addr_hash(&got));
    }
}

TEST(addr, an_unnamed_unix_peer_is_an_address_without_a_path)
{
    union {
        struct sockaddr any;
        unsigned char room[200];
    } name;
    socklen_t name_len = sizeof name;
    char buf[NETIO_ADDR_TEXT];
    netio_addr a, b;
    int n, s;
    need_unix();
    s = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(s >= 0);
    CHECK_EQ(0, getsockname(s, &name.any, &name_len));
    close(s);
    CHECK_OK(netio_addr_from_sockaddr(&a, &name, name_len));
    CHECK_EQ(NETIO_UNIX, netio_addr_family(&a));
    CHECK_EQ(0, netio_addr_class(&a));
    n = netio_addr_format(&a, buf, sizeof buf);
    CHECK(n > 0 && n == (int)strlen(buf));
    CHECK_MEM("unix:", buf, 5);
    b = address("unix:/x");
    CHECK(!netio_addr_equal(&a, &b));
}
#endif

TEST(addr, sockaddr_lengths_of_a_path_do_not_matter)
{
    struct sockaddr_un un;
    size_t head = offsetof(struct sockaddr_un, sun_path), len = 0;
    netio_addr first, a;
    need_unix();
    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    memcpy(un.sun_path, "/run/app", 8);
    // Systems hand out the bytes alone, with the NUL, or the whole structure.
    CHECK_OK(netio_addr_from_sockaddr(&first, guarded(&un, head + 8), head + 8));
    CHECK_STR("unix:/run/app", text_of(&first));
    CHECK_OK(netio_addr_from_sockaddr(&a, guarded(&un, head + 9), head + 9));
    CHECK(netio_addr_equal(&first, &a) && netio_addr_hash(&first) == netio_addr_hash(&a));
    CHECK_OK(netio_addr_from_path(&a, "/run/app", 8));
    CHECK_MEM(&un, netio_addr_sockaddr(&a, &len), head + 9);
    CHECK_EQ(head + 9, len); // ours counts the NUL, as some systems want it
    CHECK(netio_addr_equal(&first, &a) && netio_addr_hash(&first) == netio_addr_hash(&a));
    CHECK_STR("unix:/run/app", text_of(&a));
    CHECK_OK(netio_addr_from_sockaddr(&a, guarded(&un, sizeof un), sizeof un));
    CHECK(netio_addr_equal(&first, &a) && netio_addr_hash(&first) == netio_addr_hash(&a));
    CHECK_STR("unix:/run/app", text_of(&a));
    un.sun_path[0] = '@'; // a file of that name, which must not read as an abstract name
    CHECK_OK(netio_addr_from_sockaddr(&a, guarded(&un, head + 9), head + 9));
    CHECK_STR("unix:./@run/app", text_of(&a));
    memset(un.sun_path, 'x', sizeof un.sun_path); // full, no NUL anywhere
    CHECK_OK(netio_addr_from_sockaddr(&a, guarded(&un, sizeof un), sizeof un));
    CHECK_EQ(5 + sizeof un.sun_path, strlen(text_of(&a)));
}

TEST(addr, sockaddr_too_short_or_too_long_is_refused)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    unsigned char large[512];
    netio_addr a, b;
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons(80);
    in.sin_addr.s_addr = htonl(0x01020304);
    memset(&in6, 0, sizeof in6);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(80);
    in6.sin6_addr.s6_addr[15] = 1;

    fill_pattern(&a);
    for (size_t len = 0; len < sizeof in; len++)
        CHECK_ERR(NETIO_EINVAL, netio_addr_from_sockaddr(&a, guarded(&in, len), len));
    for (size_t len = 0; len < sizeof in6; len++)
        CHECK_ERR(NETIO_EINVAL, netio_addr_from_sockaddr(&a, guarded(&in6, len), len));
    memset(large, 0, sizeof large);
    memcpy(large, &in, sizeof in);
    CHECK_ERR(NETIO_EINVAL, netio_addr_from_sockaddr(&a, large, 129));
    CHECK_ERR(NETIO_EINVAL, netio_addr_from_sockaddr(&a, large, sizeof large));
    CHECK_ERR(NETIO_EINVAL, netio_addr_from_sockaddr(&a, NULL, 0));
    CHECK(is_pattern(&a));

    CHECK_OK(netio_addr_from_sockaddr(&a, guarded(&in, sizeof in), sizeof in));
    CHECK_STR("1.2.3.4:80", text_of(&a));
    CHECK_OK(netio_addr_from_sockaddr(&b, guarded(&in6, sizeof in6), sizeof in6));
    CHECK_STR("[::1]:80", text_of(&b));
    CHECK_OK(netio_addr_from_sockaddr(&b, large, 128)); // a whole sockaddr_storage
    CHECK(netio_addr_equal(&a, &b));
    CHECK_STR("1.2.3.4:80", text_of(&b));
}

TEST(addr, sockaddr_padding_does_not_matter)
{
    struct sockaddr_in in;
    netio_addr a, b;
    memset(&in, FILL, sizeof in); // sin_zero is garbage
    in.sin_family = AF_INET;
#ifdef SIN6_LEN
    in.sin_len = sizeof in;
#endif
    in.sin_port = htons(80);
    in.sin_addr.s_addr = htonl(0x01020304);
    CHECK_OK(netio_addr_from_sockaddr(&a, &in, sizeof in));
    b = address("1.2.3.4:80");
    CHECK(netio_addr_equal(&a, &b));
    CHECK_EQ(netio_addr_hash(&b), netio_addr_hash(&a));
}

TEST(addr, sockaddr_is_lent_from_inside_the_value)
{
    netio_addr a = address("[2001:db8::1]:443");
    struct sockaddr_in6 in6;
    size_t len = 0;
    const void *sa = netio_addr_sockaddr(&a, &len);
    CHECK((const char *)sa >= (const char *)&a && (const char *)sa < (const char *)(&a + 1));
    CHECK_EQ(sizeof in6, len);
    memcpy(&in6, sa, sizeof in6);
    CHECK_EQ(AF_INET6, in6.sin6_family);
    CHECK_EQ(443, ntohs(in6.sin6_port));
    CHECK_EQ(0, in6.sin6_flowinfo);
    CHECK_EQ(0, in6.sin6_scope_id);
    CHECK_MEM(netio_addr_ip(&a).data, &in6.sin6_addr, 16);
    CHECK(sizeof(netio_addr) <= 144);
}

//================================================================================================
// Classes
//================================================================================================

TEST(addr, classes_at_every_boundary)
{
    enum {
        ANY = NETIO_ADDR_ANY,
        LOOP = NETIO_ADDR_LOOPBACK,
        PRIV = NETIO_ADDR_PRIVATE,
        LINK = NETIO_ADDR_LINK_LOCAL,
        MULT = NETIO_ADDR_MULTICAST,
        CAST = NETIO_ADDR_BROADCAST,
        MAP = NETIO_ADDR_MAPPED
    };
    // clang-format off
    static const struct { const char *host; unsigned flags; } rows[] = {
        {"0.0.0.0", ANY}, {"0.0.0.1", 0}, {"1.0.0.0", 0}, {"0.255.255.255", 0},
        {"9.255.255.255", 0}, {"10.0.0.0", PRIV}, {"10.255.255.255", PRIV}, {"11.0.0.0", 0},
        {"126.255.255.255", 0}, {"127.0.0.0", LOOP}, {"127.0.0.1", LOOP},
        {"127.255.255.255", LOOP}, {"128.0.0.0", 0},
        {"169.253.255.255", 0}, {"169.254.0.0", LINK}, {"169.254.255.255", LINK},
        {"169.255.0.0", 0},
        {"172.15.255.255", 0}, {"172.16.0.0", PRIV}, {"172.31.255.255", PRIV}, {"172.32.0.0", 0},
        {"192.167.255.255", 0}, {"192.168.0.0", PRIV}, {"192.168.255.255", PRIV},
        {"192.169.0.0", 0},
        {"223.255.255.255", 0}, {"224.0.0.0", MULT}, {"239.255.255.255", MULT}, {"240.0.0.0", 0},
        {"255.255.255.254", 0}, {"255.255.255.255", CAST}, {"8.8.8.8", 0},
        {"::", ANY}, {"::1", LOOP}, {"::2", 0}, {"::1:0", 0}, {"1::", 0}, {"1::1", 0},
        {"2001:db8::1", 0}, {"::127.0.0.1", 0},
        {"fbff:ffff::", 0}, {"fc00::", PRIV}, {"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", PRIV},
        {"fe00::", 0}, {"fe7f:ffff::", 0}, {"fe80::", LINK}, {"fe80::1", LINK},
        {"febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LINK}, {"fec0::", 0}, {"feff:ffff::", 0},
        {"ff00::", MULT}, {"ff02::1", MULT}, {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", MULT},
        {"::ffff:0.0.0.0", MAP | ANY}, {"::ffff:127.0.0.1", MAP | LOOP},
        {"::ffff:10.1.2.3", MAP | PRIV}, {"::ffff:169.254.1.1", MAP | LINK},
        {"::ffff:224.0.0.1", MAP | MULT}, {"::ffff:255.255.255.255", MAP | CAST},
        {"::ffff:8.8.8.8", MAP}, {"::fffe:127.0.0.1", 0}, {"::1:ffff:127.0.0.1", 0},
    };
    // clang-format on
    netio_addr a;
    for (size_t i = 0; i < COUNT(rows); i++) {
        a = host_address(rows[i].host);
        if (netio_addr_class(&a) != rows[i].flags)
            test_fail(__FILE__, __LINE__, "%s: want %u, got %u", rows[i].host, rows[i].flags,
                      netio_addr_class(&a));
    }
    if (!HAS_UNIX) return;
    CHECK_OK(netio_addr_from_path(&a, "/run/x", 6));
    CHECK_EQ(0, netio_addr_class(&a));
}

TEST(addr, port_classes_at_every_boundary)
{
    CHECK_EQ(0, netio_port_class(0));
    CHECK_EQ(0, netio_port_class(1));
    CHECK_EQ(0, netio_port_class(1023));
    CHECK_EQ(1, netio_port_class(1024));
    CHECK_EQ(1, netio_port_class(49151));
    CHECK_EQ(2, netio_port_class(49152));
    CHECK_EQ(2, netio_port_class(65535));
}

//================================================================================================
// Equality
//================================================================================================

TEST(addr, equality_and_hash_agree)
{
    // clang-format off
    static const char *const texts[] = {
        "1.2.3.4:80", "1.2.3.4:81", "1.2.3.5:80", "[::ffff:1.2.3.4]:80", "[::ffff:1.2.3.4]:81",
        "[::1.2.3.4]:80", "[::1]:80", "[::1]:81", "[::]:80", "0.0.0.0:80", "[::ffff:0.0.0.0]:80",
        "[fe80::1]:80", "[fe80::1%4000000000]:80", "[fe80::1%4000000001]:80", "127.0.0.1:80",
        "unix:/a", "unix:/b", "unix:/a/b", "unix:1.2.3.4:80", // the last four
    };
    // clang-format on
    netio_addr a[COUNT(texts)];
    size_t count = HAS_UNIX ? COUNT(texts) : COUNT(texts) - 4;
    for (size_t i = 0; i < count; i++) a[i] = address(texts[i]);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count; k++) {
            netio_addr x = a[i], y = a[k], without_port_x, without_port_y;
            bool want;
            netio_addr_unmap(&x); // the only two texts that mean one address are mapped ones
            netio_addr_unmap(&y);
            want = strcmp(text_of(&x), text_of(&y)) == 0;
            if (netio_addr_equal(&a[i], &a[k]) != want)
                test_fail(__FILE__, __LINE__, "%s and %s: equal is %d", texts[i], texts[k], !want);
            if (want) CHECK_EQ(netio_addr_hash(&a[i]), netio_addr_hash(&a[k]));
            without_port_x = x, without_port_y = y;
            netio_addr_set_port(&without_port_x, 0);
            netio_addr_set_port(&without_port_y, 0);
            want = strcmp(text_of(&without_port_x), text_of(&without_port_y)) == 0;
            if (netio_addr_equal_host(&a[i], &a[k]) != want)
                test_fail(__FILE__, __LINE__, "%s and %s: equal_host is %d", texts[i], texts[k],
                          !want);
        }
    }
}

TEST(addr, hashes_of_different_addresses_differ)
{
    // Not promised one by one, but a table of clients rests on it: 64 bits, 4,096 near neighbours.
    enum { N = 4096 };
    uint64_t *seen = (uint64_t *)malloc(N * sizeof *seen);
    size_t same = 0, low_bits[256];
    CHECK(seen != NULL);
    memset(low_bits, 0, sizeof low_bits);
    for (unsigned i = 0; i < N; i++) {
        unsigned char ip[4] = {10, 0, 0, 1};
        netio_addr a;
        ip[3] = (unsigned char)(i & 63); // 64 hosts, 64 ports each
        CHECK_OK(netio_addr_from_ip(&a, ip, 4, (uint16_t)(32768 + (i >> 6))));
        seen[i] = netio_addr_hash(&a);
        low_bits[seen[i] & 255]++;
        for (unsigned k = 0; k < i; k++)
            if (seen[k] == seen[i]) same++;
    }
    free(seen);
    CHECK_EQ(0, same);
    for (size_t i = 0; i < 256; i++) CHECK_BETWEEN(0, 64, low_bits[i]); // 16 expected in each
}

TEST(addr, unmap_makes_the_ipv4_address)
{
    netio_addr a = address("[::ffff:1.2.3.4]:80"), b = address("1.2.3.4:80"), before;
    CHECK(!same_value(&a, &b));
    netio_addr_unmap(&a);
    CHECK(same_value(&a, &b));
    CHECK_EQ(NETIO_IPV4, netio_addr_family(&a));
    CHECK_STR("1.2.3.4:80", text_of(&a));
    before = a;
    netio_addr_unmap(&a); // again: nothing
    CHECK(same_value(&a, &before));
    a = before = address("[::1.2.3.4]:80");
    netio_addr_unmap(&a);
    CHECK(same_value(&a, &before));
    if (!HAS_UNIX) return;
    a = before = address("unix:/x");
    netio_addr_unmap(&a);
    CHECK(same_value(&a, &before));
}

//================================================================================================
// Networks
//================================================================================================

TEST(addr, cidr_contains_its_network_and_nothing_else)
{
    // clang-format off
    static const struct { const char *net, *host; bool in; } rows[] = {
        {"10.0.0.0/8", "10.255.0.1", true}, {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/8", "9.255.255.255", false}, {"10.0.0.0/8", "10.0.0.0", true},
        {"10.0.0.0/8", "10.255.255.255", true},
        {"0.0.0.0/0", "255.255.255.255", true}, {"0.0.0.0/0", "0.0.0.0", true},
        {"0.0.0.0/0", "::1", false}, {"0.0.0.0/0", "::ffff:1.2.3.4", true},
        {"128.0.0.0/1", "128.0.0.0", true}, {"128.0.0.0/1", "127.255.255.255", false},
        {"192.168.1.128/25", "192.168.1.128", true}, {"192.168.1.128/25", "192.168.1.127", false},
        {"192.168.1.254/31", "192.168.1.255", true}, {"192.168.1.254/31", "192.168.2.0", false},
        {"192.0.2.7/32", "192.0.2.7", true}, {"192.0.2.7/32", "192.0.2.6", false},
        {"192.0.2.7", "192.0.2.7", true}, {"192.0.2.7", "192.0.2.8", false},
        {"192.0.2.0/24", "::ffff:192.0.2.9", true}, {"192.0.2.0/24", "::192.0.2.9", false},
        {"172.16.0.0/12", "172.31.255.255", true}, {"172.16.0.0/12", "172.32.0.0", false},
        {"2001:db8::/32", "2001:db8:ffff::1", true}, {"2001:db8::/32", "2001:db9::", false},
        {"2001:db8:1:2::/64", "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
        {"2001:db8:1:2::/64", "2001:db8:1:3::", false},
        {"2001:db8:1:2::/63", "2001:db8:1:3::", true}, {"2001:db8:1:2::/65", "2001:db8:1:2:8000::",
        false}, {"::/0", "ffff::1", true}, {"::/0", "::", true}, {"::/0", "1.2.3.4", false},
        {"::1", "::1", true}, {"::1/128", "::1", true}, {"::1/128", "::2", false},
        {"fe80::/10", "febf::1", true}, {"fe80::/10", "fec0::1", false},
        {"fe80::/10", "fe80::1%4000000000", true}, {"8000::/1", "8000::", true},
        {"8000::/1", "7fff::", false},
        {"::ffff:10.0.0.0/104", "10.1.2.3", true}, {"::ffff:10.0.0.0/104", "11.0.0.0", false},
        {"::ffff:10.0.0.0/104", "10.255.255.255", true},
        {"::ffff:10.0.0.0/104", "::ffff:10.1.2.3", true}, {"::ffff:0:0/96", "1.2.3.4", true},
        {"::ffff:0:0/96", "::ffff:1.2.3.4", true}, {"::ffff:0:0/96", "::1.2.3.4", false},
        {"::ffff:1.2.3.4", "1.2.3.4", true}, {"::ffff:1.2.3.4/128", "1.2.3.5", false},
    };
    // clang-format on
    for (size_t i = 0; i < COUNT(rows); i++) {
        netio_cidr net;
        netio_addr a = host_address(rows[i].host);
        size_t len = strlen(rows[i].net);
        int err = netio_cidr_parse(&net, guarded(rows[i].net, len), len);
        if (err < 0) test_fail(__FILE__, __LINE__, "%s: %s", rows[i].net, netio_errname(err));
        CHECK_EQ(strchr(rows[i].net, ':') ? 16 : 4, net.ip_len);
        if (netio_cidr_contains(&net, &a) != rows[i].in)
            test_fail(__FILE__, __LINE__, "%s in %s: want %d", rows[i].host, rows[i].net,
                      rows[i].in);
    }
}

TEST(addr, cidr_refuses_and_leaves_the_output)
{
    // clang-format off
    static const bad_text rows[] = {
        BAD(""), BAD("/"), BAD("/8"), BAD("10.0.0.0/"), BAD("10.0.0.0/33"), BAD("10.0.0.0/-1"),
        BAD("10.0.0.0/+8"), BAD("10.0.0.0/08"), BAD("10.0.0.0/8x"), BAD("10.0.0.0/8 "),
        BAD(" 10.0.0.0/8"), BAD("10.0.0.0 /8"), BAD("10.0.0.0/ 8"), BAD("10.0.0.0/8/8"),
        BAD("10.0.0.0/256"), BAD("10.0.0.0/264"), BAD("10.0.0.0/4294967304"),
        BAD("10.0.0.0/18446744073709551624"), BAD("10.0.0.0/255.0.0.0"), BAD("10.0.0.0\0/8"),
        BAD("10.0.0.0/8\0"), BAD("10.0.0.1/8"), BAD("10.0.0.0/6"), BAD("192.168.1.1/31"),
        BAD("255.255.255.255/0"), BAD("10/8"), BAD("10.0.0/24"), BAD("010.0.0.0/8"),
        BAD("10.0.0.0:80/8"), BAD("10.0.0.0:80"), BAD("::/129"), BAD("::/1000"), BAD("::1/127"),
        BAD("2001:db8::1/64"), BAD("2001:db8::/28"), BAD("[::]/0"), BAD("[::1]"), BAD("[::1]:80"),
        BAD("::/"), BAD(":::/8"), BAD("fe80::%lo/10"), BAD("fe80::1%1"), BAD("*"), BAD("*/0"),
        BAD("localhost/8"), BAD("unix:/x"), BAD("1::2::3/8"), BAD("g::/8"),
    };
    // clang-format on
    netio_cidr net, before;
    memset(&net, FILL, sizeof net);
    before = net;
    for (size_t i = 0; i < COUNT(rows); i++) {
        int err = netio_cidr_parse(&net, guarded(rows[i].text, rows[i].len), rows[i].len);
        if (err != NETIO_EINVAL)
            test_fail(__FILE__, __LINE__, "\"%s\": %s", rows[i].text, netio_errname(err));
        CHECK_MEM(&before, &net, sizeof net);
    }
    CHECK_ERR(NETIO_EINVAL, netio_cidr_parse(&net, NULL, 0));
    CHECK_ERR(NETIO_EINVAL, netio_cidr_parse(NULL, "10.0.0.0/8", 10));
    for (size_t i = 0; i < COUNT(rows); i++) // every length of each: whatever comes, no overread
        for (size_t cut = 0; cut < rows[i].len; cut++)
            netio_cidr_parse(&net, guarded(rows[i].text, cut), cut);
}

TEST(addr, cidr_of_every_prefix_length)
{
    uint32_t seed = 9;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        unsigned bytes = v6 ? 16 : 4;
        for (unsigned bits = 0; bits <= bytes * 8; bits++) {
            unsigned char ip[16];
            char text[NETIO_ADDR_TEXT + 8];
            netio_cidr net;
            netio_addr a;
            test_fill(ip, sizeof ip, test_random(&seed));
            if (v6) ip[0] = 0x20; // not mapped
            for (unsigned b = bits; b < bytes * 8; b++)
                ip[b / 8] &= (unsigned char)~(0x80u >> b % 8);
            CHECK_OK(netio_addr_from_ip(&a, ip, bytes, 0));
            CHECK(netio_addr_format_host(&a, text, NETIO_ADDR_TEXT) > 0);
            snprintf(text + strlen(text), 8, "/%u", bits);
            CHECK_OK(netio_cidr_parse(&net, text, strlen(text)));
            CHECK_EQ(bits, net.bits);
            CHECK_EQ(bytes, net.ip_len);
            CHECK(netio_cidr_contains(&net, &a));
            for (unsigned b = 0; b < bytes * 8; b++) { // one bit of the host changed
                unsigned char other[16];
                memcpy(other, ip, sizeof other);
                other[b / 8] ^= (unsigned char)(0x80u >> b % 8);
                CHECK_OK(netio_addr_from_ip(&a, other, bytes, 0));
                CHECK_EQ(b >= bits, netio_cidr_contains(&net, &a));
            }
        }
    }
}

TEST(addr, cidr_contains_no_path_and_no_nothing)
{
    netio_cidr net;
    netio_addr a;
    for (int v6 = 0; v6 < 2; v6++) {
        CHECK_OK(v6 ? netio_cidr_parse(&net, "::/0", 4) : netio_cidr_parse(&net, "0.0.0.0/0", 9));
        memset(&a, 0, sizeof a);
        CHECK(!netio_cidr_contains(&net, &a));
        if (HAS_UNIX) CHECK_OK(netio_addr_from_path(&a, "/run/x", 6));
        CHECK(!netio_cidr_contains(&net, &a));
    }
    memset(&net, 0, sizeof net); // no network: an entry of a list that was never filled
    for (int family = 0; family < 2; family++) {
        a = address(family ? "[::]:5" : "0.0.0.0:5");
        CHECK(!netio_cidr_contains(&net, &a));
    }
    CHECK_OK(netio_cidr_parse(&net, "2001:db8::/32", 13));
    a = address("[2001:db8::1]:5");
    CHECK(netio_cidr_contains(&net, &a));
    net.bits = 129; // nobody parsed that
    CHECK(!netio_cidr_contains(&net, &a));
    net.bits = 255;
    CHECK(!netio_cidr_contains(&net, &a));
}

// clang-format off
TEST_MAIN("addr",
    T(addr, parse_accepts_the_good_table),
    T(addr, parse_accepts_unix_paths),
    T(addr, parse_rejects_the_bad_table_and_leaves_the_output),
    T(addr, parse_rejects_every_byte_that_does_not_belong),
    T(addr, parse_reads_no_byte_behind_its_length),
    T(addr, parse_takes_nothing_for_an_address),
    T(addr, parse_survives_any_bytes),
    T(addr, long_text_is_refused_in_linear_time),
    T(addr, path_that_does_not_fit_is_refused),
    T(addr, zone_by_name_and_by_number_are_one),
    T(addr, zone_of_no_interface_is_enodev),
    T(addr, zone_numbers_keep_to_32_bits),
    T(addr, format_needs_exactly_its_length_and_a_nul),
    T(addr, format_host_leaves_out_port_and_brackets),
    T(addr, format_of_no_address_is_einval),
    T(addr, the_documented_buffer_always_suffices),
    T(addr, an_unknown_family_is_kept_and_named_by_number),
    T(addr, parse_of_format_is_identity_for_100000_addresses),
    T(addr, format_follows_rfc_5952_for_random_addresses),
    T(addr, format_of_every_zero_pattern_follows_rfc_5952),
    T(addr, parse_agrees_with_inet_pton),
    T(addr, format_agrees_with_inet_ntop),
    T(addr, split_cuts_without_judging),
    T(addr, split_refuses_what_has_no_port),
    T(addr, constructors_make_what_their_text_says),
    T(addr, constructors_refuse_and_leave_the_output),
    T(addr, ports_are_read_and_set),
    T(addr, the_os_binds_what_we_export_ipv4),
    T(addr, the_os_binds_what_we_export_ipv6),
    T(addr, the_os_binds_what_we_export_unix),
    T(addr, an_unnamed_unix_peer_is_an_address_without_a_path),
    T(addr, sockaddr_lengths_of_a_path_do_not_matter),
    T(addr, sockaddr_too_short_or_too_long_is_refused),
    T(addr, sockaddr_padding_does_not_matter),
    T(addr, sockaddr_is_lent_from_inside_the_value),
    T(addr, classes_at_every_boundary),
    T(addr, port_classes_at_every_boundary),
    T(addr, equality_and_hash_agree),
    T(addr, hashes_of_different_addresses_differ),
    T(addr, unmap_makes_the_ipv4_address),
    T(addr, cidr_contains_its_network_and_nothing_else),
    T(addr, cidr_refuses_and_leaves_the_output),
    T(addr, cidr_of_every_prefix_length),
    T(addr, cidr_contains_no_path_and_no_nothing))
// clang-format on
