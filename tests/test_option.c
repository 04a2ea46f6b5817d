// Options: what is set reads back, what is out of range or unknown is refused, and what they do.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

//================================================================================================
// The system, where the public calls have no words for it
//================================================================================================

#ifdef __linux__
// The timer of a connection as /proc/net/tcp shows it (2: keepalive), by its local port; -1: none.
static int kernel_timer(int port)
{
    char line[300];
    int timer = -1;
    FILE *f = fopen("/proc/net/tcp", "r");
    while (f && fgets(line, sizeof line, f)) {
        unsigned local, remote, state, active;
        if (sscanf(line, " %*d: %*x:%x %*x:%x %x %*x:%*x %x:", &local, &remote, &state, &active) ==
                4 &&
            (int)local == port && state == 1)
            timer = (int)active;
    }
    if (f) fclose(f);
    return timer;
}

static long fastopen_count(void)
{
    // TcpExt comes as two lines: names, then numbers.
    static char names[8192], numbers[8192];
    long count = -1;
    FILE *f = fopen("/proc/net/netstat", "r");
    while (f && fgets(names, sizeof names, f) && fgets(numbers, sizeof numbers, f)) {
        char *n = names, *v = numbers;
        if (strncmp(names, "TcpExt:", 7) != 0) continue;
        for (; n && v; n = strchr(n + 1, ' '), v = strchr(v + 1, ' '))
            if (strncmp(n, " TCPFastOpenActive ", 19) == 0) count = strtol(v, NULL, 10);
    }
    if (f) fclose(f);
    return count;
}

// In a child with a network of its own, where Fast Open may be switched on; 77: cannot.
static int with_fastopen(int (*run)(void))
{
    int status = 0;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        struct ifreq lo;
        FILE *f;
        int s;
        if (unshare(CLONE_NEWNET) != 0) _exit(77);
        s = socket(AF_INET, SOCK_DGRAM, 0);
        memset(&lo, 0, sizeof lo);
        memcpy(lo.ifr_name, "lo", 3);
        lo.ifr_flags = IFF_UP;
        if (s < 0 || ioctl(s, SIOCSIFFLAGS, &lo) != 0) _exit(77);
        close(s);
        f = fopen("/proc/sys/net/ipv4/tcp_fastopen", "w");
        if (!f || fputs("3\n", f) < 0 || fclose(f) != 0) _exit(77);
        _exit(run());
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}
static const bool on_linux = true;
#else
static int kernel_timer(int port)
{
    (void)port;
    return -1;
}
static long fastopen_count(void) { return -1; }
static int with_fastopen(int (*run)(void))
{
    (void)run;
    return 77;
}
static const bool on_linux = false;
#endif

#ifdef _WIN32
static const bool on_windows = true;
static bool os_would_block(void) { return WSAGetLastError() == WSAETIMEDOUT; }
static void os_blocking(netio_socket s)
{
    u_long off = 0;
    CHECK_EQ(0, ioctlsocket(s, (long)FIONBIO, &off));
}
#else
static const bool on_windows = false;
static bool os_would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK; }
static void os_blocking(netio_socket s)
{
    CHECK_EQ(0, fcntl(s, F_SETFL, fcntl(s, F_GETFL) & ~O_NONBLOCK));
}
#endif

//================================================================================================
// Kinds of sockets
//================================================================================================

enum { LAST_OPTION = NETIO_OPT_ERROR + 50 }; // far enough; what has no name is passed over

enum { TCP4, TCP6, LISTENER, CLIENT, UDP4, UDP6, PEERED, RAW4, PAIR, KINDS };

static const char *const kind_names[] = {"TCP4", "TCP6",   "LISTENER", "CLIENT", "UDP4",
                                         "UDP6", "PEERED", "RAW4",     "PAIR"};

// A socket of a kind, fresh: TCP4, TCP6, UDP4, UDP6 and RAW4 are unbound. `other` keeps its peer.
static bool kind_open(netio_socket *s, netio_socket *other, int kind)
{
    netio_socket pair[2];
    netio_socket_opts opts = {0};
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    int err = 0;
    *other = NETIO_INVALID_SOCKET;
    switch (kind) {
    case TCP4: err = netio_open(s, AF_INET, SOCK_STREAM, 0); break;
    case TCP6: err = netio_open(s, AF_INET6, SOCK_STREAM, 0); break;
    case UDP4: err = netio_open(s, AF_INET, SOCK_DGRAM, 0); break;
    case UDP6: err = netio_open(s, AF_INET6, SOCK_DGRAM, 0); break;
    case RAW4: err = netio_open(s, AF_INET, SOCK_RAW, IPPROTO_ICMP); break;
    case LISTENER: err = netio_listen(s, "127.0.0.1:0", NULL); break;
    case CLIENT: test_tcp_pair(s, other); break;
    case PEERED:
        opts.type = NETIO_DGRAM;
        CHECK_OK(netio_bind(other, "127.0.0.1:0", NULL));
        CHECK_OK(netio_local_addr(*other, &a));
        CHECK(netio_addr_format(&a, text, sizeof text) > 0);
        err = netio_connect(s, text, &opts, 1000);
        break;
    default: // PAIR
        err = netio_pair(pair, NETIO_STREAM);
        *s = pair[0];
        *other = pair[1];
    }
    if (err < 0 && kind != RAW4 && kind != TCP6 && kind != UDP6) CHECK_OK(err);
    return err == 0;
}

static void kind_close(netio_socket *s, netio_socket *other)
{
    CHECK_OK(netio_close(s));
    if (*other != NETIO_INVALID_SOCKET) CHECK_OK(netio_close(other));
}

//================================================================================================
// The table: which option, on which kind, takes which values and refuses which
//================================================================================================

enum { SAME, AT_LEAST, ANY_BACK }; // how the value read back compares with the one set
enum { FREE, RIGHTS };             // RIGHTS: may be EACCES for who is not root

typedef struct row {
    int option, kind, back, rights;
    int good[5], good_count;
    int bad[4], bad_count;
} row;

// clang-format off
static const row rows[] = {
    {NETIO_OPT_NODELAY, CLIENT, SAME, FREE, {1, 0, 1}, 3, {2, -1}, 2},
    {NETIO_OPT_NODELAY, TCP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_NODELAY, TCP6, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_CORK, CLIENT, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_QUICKACK, CLIENT, SAME, FREE, {1, 0, 1}, 3, {2, -1}, 2},
    {NETIO_OPT_KEEPALIVE, CLIENT, SAME, FREE, {1, 0, 1}, 3, {2, -1}, 2},
    {NETIO_OPT_KEEPALIVE, LISTENER, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_KEEPIDLE, CLIENT, SAME, FREE, {1, 60, 7200, 32767}, 4, {0, -1, 32768}, 3},
    {NETIO_OPT_KEEPINTVL, CLIENT, SAME, FREE, {1, 5, 75, 32767}, 4, {0, -1, 32768}, 3},
    {NETIO_OPT_KEEPCNT, CLIENT, SAME, FREE, {1, 3, 9, 127}, 4, {0, -1, 32768}, 3},
    {NETIO_OPT_USER_TIMEOUT, CLIENT, SAME, FREE, {1000, 30000, 0}, 3, {-1}, 1},
    {NETIO_OPT_LINGER, CLIENT, SAME, FREE, {0, 5, 65, -1, 0}, 5, {-2, -100, 65536}, 3},
    {NETIO_OPT_LINGER, LISTENER, SAME, FREE, {3, -1}, 2, {-2}, 1},
    {NETIO_OPT_SNDBUF, CLIENT, AT_LEAST, FREE, {65536, 131072, 16384}, 3, {0, -1}, 2},
    {NETIO_OPT_SNDBUF, TCP4, AT_LEAST, FREE, {65536}, 1, {0, -1}, 2},
    {NETIO_OPT_SNDBUF, UDP4, AT_LEAST, FREE, {65536, 131072}, 2, {0, -1}, 2},
    {NETIO_OPT_SNDBUF, PAIR, AT_LEAST, FREE, {65536, 131072}, 2, {0, -1}, 2},
    {NETIO_OPT_RCVBUF, CLIENT, AT_LEAST, FREE, {65536, 131072, 16384}, 3, {0, -1}, 2},
    {NETIO_OPT_RCVBUF, LISTENER, AT_LEAST, FREE, {65536}, 1, {0, -1}, 2},
    {NETIO_OPT_RCVBUF, UDP4, AT_LEAST, FREE, {65536, 131072}, 2, {0, -1}, 2},
    {NETIO_OPT_SNDTIMEO, CLIENT, SAME, FREE, {100, 1500, 0}, 3, {-1}, 1},
    {NETIO_OPT_RCVTIMEO, CLIENT, SAME, FREE, {100, 1500, 0}, 3, {-1}, 1},
    {NETIO_OPT_RCVTIMEO, UDP4, SAME, FREE, {100, 0}, 2, {-1}, 1},
    {NETIO_OPT_REUSEADDR, TCP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_REUSEADDR, UDP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_REUSEPORT, TCP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_REUSEPORT, UDP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_EXCLUSIVE, TCP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_V6ONLY, TCP6, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_V6ONLY, UDP6, SAME, FREE, {0, 1}, 2, {2, -1}, 2},
    {NETIO_OPT_FASTOPEN, LISTENER, ANY_BACK, FREE, {16, 128}, 2, {-1}, 1},
    {NETIO_OPT_FASTOPEN_CONNECT, TCP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_MARK, TCP4, SAME, RIGHTS, {7, 0}, 2, {0}, 0},
    {NETIO_OPT_TTL, TCP4, SAME, FREE, {1, 64, 255}, 3, {0, 256, -1}, 3},
    {NETIO_OPT_TTL, TCP6, SAME, FREE, {1, 64, 255}, 3, {0, 256, -1}, 3},
    {NETIO_OPT_TTL, UDP4, SAME, FREE, {1, 128, 255}, 3, {0, 256, -1}, 3},
    {NETIO_OPT_TTL, UDP6, SAME, FREE, {1, 128, 255}, 3, {0, 256, -1}, 3},
    {NETIO_OPT_TTL, CLIENT, SAME, FREE, {1, 128}, 2, {0, 256, -1}, 3},
    {NETIO_OPT_TOS, UDP4, SAME, FREE, {0xB8, 0, 0x10, 255}, 4, {256, -1}, 2},
    {NETIO_OPT_TOS, UDP6, SAME, FREE, {0xB8, 0, 255}, 3, {256, -1}, 2},
    {NETIO_OPT_TOS, CLIENT, SAME, FREE, {0xB8, 0}, 2, {256, -1}, 2},
    {NETIO_OPT_BROADCAST, UDP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_MULTICAST_TTL, UDP4, SAME, FREE, {0, 1, 32, 255}, 4, {256, -1}, 2},
    {NETIO_OPT_MULTICAST_TTL, UDP6, SAME, FREE, {0, 1, 32, 255}, 4, {256, -1}, 2},
    {NETIO_OPT_MULTICAST_LOOP, UDP4, SAME, FREE, {0, 1}, 2, {2, -1}, 2},
    {NETIO_OPT_MULTICAST_LOOP, UDP6, SAME, FREE, {0, 1}, 2, {2, -1}, 2},
    {NETIO_OPT_DONTFRAG, UDP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_DONTFRAG, UDP6, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_HDRINCL, RAW4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_BUSY_POLL, UDP4, SAME, RIGHTS, {0, 50}, 2, {-1}, 1},
    {NETIO_OPT_NOTSENT_LOWAT, CLIENT, SAME, FREE, {16384, 131072}, 2, {-1}, 1},
    {NETIO_OPT_MULTICAST_IF, UDP4, SAME, FREE, {1, 0}, 2, {-1}, 1}, // 1: the loopback's, always
    {NETIO_OPT_MULTICAST_IF, UDP6, SAME, FREE, {1, 0}, 2, {-1}, 1},
    {NETIO_OPT_RECV_LOCAL, UDP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_RECV_LOCAL, UDP6, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_RECV_TTL, UDP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_RECV_TTL, UDP6, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_RECV_TOS, UDP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_RECV_TOS, UDP6, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_RECV_TIME, UDP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
    {NETIO_OPT_RECV_SEGMENTS, UDP4, SAME, FREE, {1, 0}, 2, {2, -1}, 2},
};

// Options of numbers that a kind of socket does not have.
static const struct { int option, kind; } lacking[] = {
    {NETIO_OPT_NODELAY, UDP4}, {NETIO_OPT_NODELAY, PAIR}, {NETIO_OPT_CORK, UDP6},
    {NETIO_OPT_QUICKACK, UDP4}, {NETIO_OPT_KEEPALIVE, UDP4}, {NETIO_OPT_KEEPALIVE, PEERED},
    {NETIO_OPT_KEEPIDLE, UDP4}, {NETIO_OPT_KEEPINTVL, UDP4}, {NETIO_OPT_KEEPCNT, UDP4},
    {NETIO_OPT_USER_TIMEOUT, UDP4}, {NETIO_OPT_BROADCAST, CLIENT}, {NETIO_OPT_BROADCAST, TCP4},
    {NETIO_OPT_FASTOPEN, UDP4}, {NETIO_OPT_FASTOPEN_CONNECT, UDP4},
    {NETIO_OPT_NOTSENT_LOWAT, UDP4}, {NETIO_OPT_HDRINCL, TCP4},
};
// clang-format on

static const char *row_text(const row *r, int value)
{
    static char text[100];
    snprintf(text, sizeof text, "%s of %s to %d", netio_option_name(r->option), kind_names[r->kind],
             value);
    return text;
}

static void check_row(const row *r, netio_socket s)
{
    int before, back;
    for (int i = 0; i < r->good_count; i++) {
        int want = r->good[i], err = netio_set_option(s, r->option, want);
        if (err == NETIO_EACCES && r->rights == RIGHTS) return;
        if (err == NETIO_ENOTSUP && test_under("qemu")) return; // it translates only some
        if (r->option == NETIO_OPT_MULTICAST_IF && test_under("wine")) return; // by address only
        if (err < 0)
            test_fail(__FILE__, __LINE__, "%s: %s (os %d)", row_text(r, want), netio_errname(err),
                      netio_os_error());
        err = netio_get_option(s, r->option, &back);
        if (err < 0)
            test_fail(__FILE__, __LINE__, "%s: get: %s", row_text(r, want), netio_errname(err));
        if ((r->back == SAME && back != want) || (r->back == AT_LEAST && back < want))
            test_fail(__FILE__, __LINE__, "%s: reads back %d", row_text(r, want), back);
    }
    CHECK_OK(netio_get_option(s, r->option, &before));
    for (int i = 0; i < r->bad_count; i++) {
        int err = netio_set_option(s, r->option, r->bad[i]);
        if (err != NETIO_EINVAL)
            test_fail(__FILE__, __LINE__, "%s: want EINVAL, got %s", row_text(r, r->bad[i]),
                      netio_errname(err));
        CHECK_OK(netio_get_option(s, r->option, &back));
        if (back != before) test_fail(__FILE__, __LINE__, "%s: changed it", row_text(r, back));
    }
}

//================================================================================================
// Set, get, refuse
//================================================================================================

TEST(option, what_is_set_reads_back_and_what_is_out_of_range_is_einval)
{
    int checked = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_socket s, other;
        if (!kind_open(&s, &other, rows[i].kind)) continue;
        if (netio_option_supported(rows[i].option)) {
            check_row(&rows[i], s);
            checked++;
        } else if (rows[i].option == NETIO_OPT_RECV_SEGMENTS && test_under("wine")) {
            // Wine says EINVAL to each option of UDP's own, which a wrong value would be too.
        } else if (!test_under("qemu")) { // which may set what it cannot read
            int value = 0, err = netio_set_option(s, rows[i].option, rows[i].good[0]);
            if (err != NETIO_ENOTSUP)
                test_fail(__FILE__, __LINE__, "%s: is not supported, but %s",
                          row_text(&rows[i], rows[i].good[0]), netio_errname(err));
            // Fast Open may be there and switched off for listeners: that much can be read.
            err = netio_get_option(s, rows[i].option, &value);
            if (err != 0 || rows[i].option != NETIO_OPT_FASTOPEN) CHECK_ERR(NETIO_ENOTSUP, err);
        }
        kind_close(&s, &other);
    }
    CHECK(checked >= 20);
}

TEST(option, every_settable_number_is_in_the_table)
{
    for (int option = 1; option < NETIO_OPT_ERROR; option++) {
        bool found = option == NETIO_OPT_CONGESTION || option == NETIO_OPT_DEVICE; // texts
        if (!netio_option_name(option)[0]) continue;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            if (rows[i].option == option) found = true;
        if (!found) test_fail(__FILE__, __LINE__, "%s is not", netio_option_name(option));
    }
}

// Whether a real call on some kind of socket takes the option.
static bool accepted_somewhere(int option, int *why)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        netio_socket s, other;
        int err, value;
        if (rows[i].option != option || !kind_open(&s, &other, rows[i].kind)) continue;
        err = netio_set_option(s, option, rows[i].good[0]);
        if (err == 0) err = netio_get_option(s, option, &value);
        kind_close(&s, &other);
        *why = err;
        if (err == 0 || err == NETIO_EACCES) return true;
    }
    return false;
}

TEST(option, supported_is_what_calls_accept)
{
    char buf[64];
    if (test_under("qemu")) SKIP("qemu-user translates some options one way only");
    for (int option = NETIO_OPT_NODELAY; option <= LAST_OPTION; option++) {
        int why = 0, value;
        bool accepted, known = netio_option_name(option)[0] != 0;
        if (!known) {
            CHECK(!netio_option_supported(option));
            continue;
        }
        if (option == NETIO_OPT_CONGESTION || option == NETIO_OPT_DEVICE || option >= 100) {
            netio_socket s, other;
            CHECK(
                kind_open(&s, &other,
                          option == NETIO_OPT_MTU || option == NETIO_OPT_DROPS ? PEERED : CLIENT));
            if (option < 100) why = netio_get_option_text(s, option, buf, sizeof buf);
            else why = netio_get_option(s, option, &value);
            kind_close(&s, &other);
            accepted = why >= 0;
        } else if (option == NETIO_OPT_HDRINCL) {
            netio_socket s, other;
            if (!kind_open(&s, &other, RAW4)) continue; // no right to try
            kind_close(&s, &other);
            accepted = accepted_somewhere(option, &why);
        } else {
            accepted = accepted_somewhere(option, &why);
        }
        if (accepted != netio_option_supported(option))
            test_fail(__FILE__, __LINE__, "%s: supported %d, but calls say %s",
                      netio_option_name(option), (int)!accepted, netio_errname(why));
    }
    CHECK(!netio_option_supported(0));
    CHECK(!netio_option_supported(-1));
    CHECK(!netio_option_supported(9999));
    CHECK(!netio_option_supported(NETIO_OPT_ERROR - 1));
}

TEST(option, names_are_there_and_differ)
{
    const char *seen[200] = {0};
    int count = 0;
    CHECK_STR("NODELAY", netio_option_name(NETIO_OPT_NODELAY));
    CHECK_STR("UNSENT", netio_option_name(NETIO_OPT_UNSENT));
    CHECK_STR("", netio_option_name(0));
    CHECK_STR("", netio_option_name(-1));
    CHECK_STR("", netio_option_name(9999));
    for (int option = 1; option <= LAST_OPTION; option++) {
        const char *name = netio_option_name(option);
        CHECK(name != NULL);
        if (option <= NETIO_OPT_RECV_SEGMENTS) CHECK(name[0]);
        if (option >= NETIO_OPT_ERROR && option <= NETIO_OPT_DROPS) CHECK(name[0]);
        if (!name[0]) continue;
        for (int i = 0; i < count; i++) CHECK(strcmp(seen[i], name) != 0);
        seen[count++] = name;
    }
}

TEST(option, a_kind_that_lacks_it_says_enotsup)
{
    for (size_t i = 0; i < sizeof lacking / sizeof lacking[0]; i++) {
        netio_socket s, other;
        netio_addr a;
        int err;
        if (!kind_open(&s, &other, lacking[i].kind)) continue;
        CHECK_OK(netio_local_addr(s, &a));
        // Where pairs are made of TCP they have what TCP has.
        if (lacking[i].kind != PAIR || netio_addr_family(&a) != NETIO_IPV4) {
            err = netio_set_option(s, lacking[i].option, 1);
            if (err != NETIO_ENOTSUP)
                test_fail(__FILE__, __LINE__, "%s of %s: %s", netio_option_name(lacking[i].option),
                          kind_names[lacking[i].kind], netio_errname(err));
        }
        kind_close(&s, &other);
    }
}

TEST(option, v6only_of_an_ipv4_socket_is_refused)
{
    netio_socket s, other;
    int err;
    CHECK(kind_open(&s, &other, TCP4));
    err = netio_set_option(s, NETIO_OPT_V6ONLY, 1);
    CHECK(err == NETIO_EINVAL || err == NETIO_ENOTSUP);
    kind_close(&s, &other);
}

TEST(option, too_late_is_einval)
{
    static const int options[] = {NETIO_OPT_REUSEADDR, NETIO_OPT_REUSEPORT, NETIO_OPT_EXCLUSIVE};
    netio_socket listener, udp, six;
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&udp, "127.0.0.1:0", NULL));
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (!netio_option_supported(options[i])) continue;
        CHECK_ERR(NETIO_EINVAL, netio_set_option(listener, options[i], 1));
        CHECK_ERR(NETIO_EINVAL, netio_set_option(udp, options[i], 1));
    }
    if (netio_bind(&six, "[::1]:0", NULL) == 0) {
        CHECK_ERR(NETIO_EINVAL, netio_set_option(six, NETIO_OPT_V6ONLY, 0));
        CHECK_OK(netio_close(&six));
    }
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_close(&udp));
}

TEST(option, unknown_and_read_only_numbers_are_refused)
{
    static const int unknown[] = {0, -1, NETIO_OPT_ERROR - 1, 999, 9999};
    netio_socket s, other;
    int value = 5;
    char buf[8];
    CHECK(kind_open(&s, &other, CLIENT));
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        int set = netio_set_option(s, unknown[i], 1), get = netio_get_option(s, unknown[i], &value);
        CHECK(set == NETIO_EINVAL || set == NETIO_ENOTSUP);
        CHECK(get == NETIO_EINVAL || get == NETIO_ENOTSUP);
        CHECK(netio_get_option_text(s, unknown[i], buf, sizeof buf) < 0);
        CHECK(netio_set_option_text(s, unknown[i], "x") < 0);
    }
    CHECK_EQ(5, value);
    for (int option = NETIO_OPT_ERROR; option <= LAST_OPTION; option++) {
        int set = netio_set_option(s, option, 1);
        CHECK(set == NETIO_EINVAL || set == NETIO_ENOTSUP);
    }
    // A number is no text, and a text no number.
    CHECK(netio_set_option_text(s, NETIO_OPT_NODELAY, "1") < 0);
    CHECK(netio_get_option_text(s, NETIO_OPT_NODELAY, buf, sizeof buf) < 0);
    CHECK(netio_set_option(s, NETIO_OPT_CONGESTION, 1) < 0);
    CHECK(netio_get_option(s, NETIO_OPT_CONGESTION, &value) < 0);
    CHECK(netio_set_option(s, NETIO_OPT_DEVICE, 1) < 0);
    CHECK_EQ(5, value);
    kind_close(&s, &other);
}

TEST(option, the_invalid_socket_is_ebadf_for_every_option)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    char buf[8];
    size_t len = sizeof buf;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int value = 0;
        if (!netio_option_supported(rows[i].option)) continue;
        CHECK_ERR(NETIO_EBADF, netio_set_option(s, rows[i].option, rows[i].good[0]));
        CHECK_ERR(NETIO_EBADF, netio_get_option(s, rows[i].option, &value));
    }
    for (int option = NETIO_OPT_ERROR; option <= LAST_OPTION; option++) {
        int value = 0;
        if (netio_option_supported(option))
            CHECK_ERR(NETIO_EBADF, netio_get_option(s, option, &value));
    }
    CHECK_ERR(NETIO_EBADF, netio_set_option_raw(s, SOL_SOCKET, SO_RCVBUF, "abcd", 4));
    CHECK_ERR(NETIO_EBADF, netio_get_option_raw(s, SOL_SOCKET, SO_RCVBUF, buf, &len));
    CHECK_ERR(NETIO_EBADF, netio_set_keepalive(s, 60, 5, 3));
    if (netio_option_supported(NETIO_OPT_CONGESTION)) {
        CHECK_ERR(NETIO_EBADF, netio_set_option_text(s, NETIO_OPT_CONGESTION, "cubic"));
        CHECK_ERR(NETIO_EBADF, netio_get_option_text(s, NETIO_OPT_CONGESTION, buf, sizeof buf));
    }
}

#ifndef _WIN32
TEST(option, a_descriptor_that_is_no_socket_is_enotsock)
{
    int ends[2], value;
    CHECK_EQ(0, pipe(ends));
    CHECK_ERR(NETIO_ENOTSOCK, netio_set_option(ends[0], NETIO_OPT_SNDBUF, 65536));
    CHECK_ERR(NETIO_ENOTSOCK, netio_get_option(ends[0], NETIO_OPT_SNDBUF, &value));
    CHECK_ERR(NETIO_ENOTSOCK, netio_get_option(ends[0], NETIO_OPT_ERROR, &value));
    CHECK_ERR(NETIO_ENOTSOCK, netio_set_keepalive(ends[0], 60, 5, 3));
    close(ends[0]);
    close(ends[1]);
}
#else
TEST(option, a_descriptor_that_is_no_socket_is_enotsock) { SKIP("descriptors are sockets here"); }
#endif

//================================================================================================
// Text
//================================================================================================

TEST(option, congestion_goes_by_name)
{
    netio_socket s, other;
    char buf[32], tiny[3];
    int len;
    if (!netio_option_supported(NETIO_OPT_CONGESTION)) SKIP("not on this system");
    if (test_under("qemu")) SKIP("qemu-user does not translate options of text");
    CHECK(kind_open(&s, &other, CLIENT));
    len = netio_get_option_text(s, NETIO_OPT_CONGESTION, buf, sizeof buf);
    CHECK(len > 0);
    CHECK_EQ(strlen(buf), len);
    CHECK_OK(netio_set_option_text(s, NETIO_OPT_CONGESTION, "reno")); // every Linux has it
    CHECK_ERR(4, netio_get_option_text(s, NETIO_OPT_CONGESTION, buf, sizeof buf));
    CHECK_STR("reno", buf);
    CHECK_ERR(4, netio_get_option_text(s, NETIO_OPT_CONGESTION, buf, 5)); // just fits
    memset(tiny, 'z', sizeof tiny);
    CHECK_ERR(NETIO_ENOSPC, netio_get_option_text(s, NETIO_OPT_CONGESTION, tiny, 2));
    CHECK_EQ('z', tiny[2]);
    CHECK_ERR(NETIO_ENOSPC, netio_get_option_text(s, NETIO_OPT_CONGESTION, buf, 4));
    CHECK_ERR(NETIO_ENOENT, netio_set_option_text(s, NETIO_OPT_CONGESTION, "nonsense"));
    CHECK(netio_set_option_text(s, NETIO_OPT_CONGESTION, "") < 0);
    CHECK(netio_set_option_text(s, NETIO_OPT_CONGESTION, "much-longer-than-any-name-may-be") < 0);
    CHECK_ERR(NETIO_EINVAL, netio_set_option_text(s, NETIO_OPT_CONGESTION, NULL));
    CHECK_ERR(4, netio_get_option_text(s, NETIO_OPT_CONGESTION, buf, sizeof buf));
    CHECK_STR("reno", buf);
    kind_close(&s, &other);
    CHECK(kind_open(&s, &other, UDP4));
    CHECK_ERR(NETIO_ENOTSUP, netio_set_option_text(s, NETIO_OPT_CONGESTION, "reno"));
    kind_close(&s, &other);
}

TEST(option, a_device_is_bound_by_name)
{
    netio_socket s, other;
    char buf[32];
    int err;
    if (test_under("qemu")) SKIP("qemu-user does not translate options of text");
    CHECK(kind_open(&s, &other, UDP4));
    if (!netio_option_supported(NETIO_OPT_DEVICE)) {
        CHECK_ERR(NETIO_ENOTSUP, netio_set_option_text(s, NETIO_OPT_DEVICE, "lo"));
        kind_close(&s, &other);
        SKIP("not on this system, and netio says so");
    }
    err = netio_set_option_text(s, NETIO_OPT_DEVICE, "nonsense0");
    if (err == NETIO_EACCES) {
        kind_close(&s, &other);
        SKIP("needs a right that this user lacks, and netio says so");
    }
    CHECK_ERR(NETIO_ENODEV, err);
    CHECK(netio_set_option_text(s, NETIO_OPT_DEVICE, "a-name-longer-than-any-interface-has") < 0);
    CHECK_OK(netio_set_option_text(s, NETIO_OPT_DEVICE, on_linux ? "lo" : "lo0"));
    CHECK(netio_get_option_text(s, NETIO_OPT_DEVICE, buf, sizeof buf) > 0);
    CHECK_STR(on_linux ? "lo" : "lo0", buf);
    kind_close(&s, &other);
}

//================================================================================================
// Keepalive
//================================================================================================

TEST(option, keepalive_in_one_call)
{
    static const int good[][3] = {{60, 5, 3}, {60, 10, 5}, {30, 1, 1}, {1, 1, 1}};
    static const int bad[][3] = {{0, 5, 3},     {60, 0, 3},     {60, 5, 0},
                                 {-1, 5, 3},    {60, -1, 3},    {60, 5, -1},
                                 {32768, 5, 3}, {60, 32768, 3}, {60, 5, 32768}};
    netio_socket s, other;
    int value;
    CHECK(kind_open(&s, &other, CLIENT));
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int err = netio_set_keepalive(s, good[i][0], good[i][1], good[i][2]);
        if (err == NETIO_ENOTSUP && on_windows) {
            CHECK_OK(netio_get_option(s, NETIO_OPT_KEEPALIVE, &value));
            CHECK_EQ(1, value); // idle and interval are set all the same
            continue;
        }
        CHECK_OK(err);
        CHECK_OK(netio_get_option(s, NETIO_OPT_KEEPALIVE, &value));
        CHECK_EQ(1, value);
        if (!netio_option_supported(NETIO_OPT_KEEPIDLE)) continue;
        CHECK_OK(netio_get_option(s, NETIO_OPT_KEEPIDLE, &value));
        CHECK_EQ(good[i][0], value);
        CHECK_OK(netio_get_option(s, NETIO_OPT_KEEPINTVL, &value));
        CHECK_EQ(good[i][1], value);
        CHECK_OK(netio_get_option(s, NETIO_OPT_KEEPCNT, &value));
        CHECK_EQ(good[i][2], value);
    }
    CHECK_OK(netio_set_option(s, NETIO_OPT_KEEPALIVE, 0));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_ERR(NETIO_EINVAL, netio_set_keepalive(s, bad[i][0], bad[i][1], bad[i][2]));
        CHECK_OK(netio_get_option(s, NETIO_OPT_KEEPALIVE, &value));
        CHECK_EQ(0, value); // refused whole
    }
    kind_close(&s, &other);
    CHECK(kind_open(&s, &other, UDP4));
    CHECK_ERR(NETIO_ENOTSUP, netio_set_keepalive(s, 60, 5, 3));
    kind_close(&s, &other);
}

TEST(option, keepalive_starts_the_kernels_timer)
{
    netio_socket s, other;
    netio_addr a;
    int port;
    CHECK(kind_open(&s, &other, CLIENT));
    CHECK_OK(netio_local_addr(s, &a));
    port = netio_addr_port(&a);
    if (kernel_timer(port) < 0) {
        kind_close(&s, &other);
        SKIP("no /proc/net/tcp here");
    }
    CHECK_EQ(0, kernel_timer(port));
    CHECK_OK(netio_set_keepalive(s, 60, 5, 3));
    CHECK_EQ(2, kernel_timer(port));
    CHECK_OK(netio_set_option(s, NETIO_OPT_KEEPALIVE, 0));
    CHECK_EQ(0, kernel_timer(port));
    kind_close(&s, &other);
}

//================================================================================================
// What options do
//================================================================================================

TEST(option, linger_zero_resets_and_linger_off_delivers)
{
    static char data[200000], buf[200000];
    netio_socket s, other;
    int value;
    ptrdiff_t n;
    CHECK(kind_open(&s, &other, CLIENT));
    CHECK_OK(netio_get_option(s, NETIO_OPT_LINGER, &value));
    CHECK_EQ(-1, value); // off by default
    CHECK_OK(netio_set_option(s, NETIO_OPT_LINGER, 0));
    CHECK_OK(netio_close(&s));
    n = netio_recv(other, buf, sizeof buf, 5000);
    CHECK(n == NETIO_ECONNRESET || (n == NETIO_EOF && test_under("wine")));
    CHECK_OK(netio_close(&other));
    CHECK(kind_open(&s, &other, CLIENT));
    CHECK_OK(netio_set_option(s, NETIO_OPT_SNDBUF, 400000));
    CHECK_OK(netio_send_all(s, data, sizeof data, NULL, 5000));
    CHECK_OK(netio_set_option(s, NETIO_OPT_LINGER, -1));
    CHECK_OK(netio_close(&s)); // in the background the rest is sent still
    CHECK_OK(netio_recv_exact(other, buf, sizeof buf, NULL, 5000));
    CHECK_ERR(NETIO_EOF, netio_recv(other, buf, sizeof buf, 5000));
    CHECK_OK(netio_close(&other));
}

TEST(option, rcvtimeo_and_sndtimeo_reach_the_os)
{
    static char data[65536];
    netio_socket s, other;
    char c;
    uint64_t from;
    long n;
    CHECK(kind_open(&s, &other, CLIENT));
    os_blocking(s); // the option counts in the blocking mode alone
    CHECK_OK(netio_set_option(s, NETIO_OPT_RCVTIMEO, 120));
    from = test_ms();
    n = (long)recv(s, &c, 1, 0);
    CHECK(n < 0 && os_would_block());
    CHECK_BETWEEN(100, 3000, test_ms() - from);
    // netio's own calls have their own limits, whatever these say (Windows: if it was adopted).
    if (!on_windows) {
        from = test_ms();
        CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(s, &c, 1, 200));
        CHECK_BETWEEN(199, 3000, test_ms() - from);
        CHECK_OK(netio_set_option(s, NETIO_OPT_RCVTIMEO, 8000));
        from = test_ms();
        CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(s, &c, 1, 20));
        CHECK_BETWEEN(19, 3000, test_ms() - from);
    }
    CHECK_OK(netio_set_option(s, NETIO_OPT_SNDTIMEO, 120));
    do {
        from = test_ms();
        n = (long)send(s, data, sizeof data, 0);
    } while (n == (long)sizeof data);
    if (n < 0) CHECK(os_would_block());
    CHECK_BETWEEN(100, 3000, test_ms() - from);
    kind_close(&s, &other);
}

TEST(option, nodelay_lets_small_writes_go_at_once)
{
    // Write, write, read: with Nagle's algorithm the second write waits for a delayed ACK.
    enum { ROUNDS = 21 };
    netio_socket s, other;
    uint64_t us[ROUNDS];
    char buf[4];
    CHECK(kind_open(&s, &other, CLIENT));
    CHECK_OK(netio_set_option(s, NETIO_OPT_NODELAY, 1));
    for (int i = 0; i < ROUNDS; i++) {
        int at = i;
        uint64_t from = netio_now_us();
        CHECK_ERR(1, netio_send(s, "a", 1, 5000));
        CHECK_ERR(1, netio_send(s, "b", 1, 5000));
        CHECK_OK(netio_recv_exact(other, buf, 2, NULL, 5000));
        CHECK_ERR(1, netio_send(other, "c", 1, 5000));
        CHECK_ERR(1, netio_recv(s, buf, 1, 5000));
        for (from = netio_now_us() - from; at > 0 && us[at - 1] > from; at--) us[at] = us[at - 1];
        us[at] = from;
    }
    CHECK_BETWEEN(0, 30000, us[ROUNDS / 2]); // the median; a stall is 40 ms
    kind_close(&s, &other);
}

TEST(option, a_failed_connect_is_pending_once)
{
    netio_socket keeper, s;
    netio_addr a;
    size_t len;
    const void *raw;
    int err, value = 1;
    CHECK_OK(netio_open(&keeper, AF_INET, SOCK_STREAM, 0)); // bound and not listening: it refuses
    CHECK_OK(netio_addr_loopback(&a, NETIO_IPV4, 0));
    raw = netio_addr_sockaddr(&a, &len);
    CHECK_EQ(0, bind(keeper, (const struct sockaddr *)raw, (socklen_t)len));
    CHECK_OK(netio_local_addr(keeper, &a));
    CHECK_OK(netio_open(&s, AF_INET, SOCK_STREAM, 0));
    CHECK_OK(netio_get_option(s, NETIO_OPT_ERROR, &value));
    CHECK_EQ(0, value);
    raw = netio_addr_sockaddr(&a, &len);
    err = connect(s, (const struct sockaddr *)raw, (socklen_t)len);
    CHECK(err < 0);
    CHECK_EQ(NETIO_EV_WRITE, netio_wait(s, NETIO_EV_WRITE, 10000) & NETIO_EV_WRITE);
    CHECK_OK(netio_get_option(s, NETIO_OPT_ERROR, &value));
    CHECK_ERR(NETIO_ECONNREFUSED, value);
    CHECK_OK(netio_get_option(s, NETIO_OPT_ERROR, &value));
    if (!test_under("wine")) CHECK_ERR(0, value); // cleared by reading, but not by Wine
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&keeper));
}

TEST(option, type_family_and_listening_can_be_asked)
{
    // clang-format off
    static const struct { int kind, type, family, listening; } wants[] = {
        {TCP4, NETIO_STREAM, NETIO_IPV4, 0}, {TCP6, NETIO_STREAM, NETIO_IPV6, 0},
        {LISTENER, NETIO_STREAM, NETIO_IPV4, 1}, {CLIENT, NETIO_STREAM, NETIO_IPV4, 0},
        {UDP4, NETIO_DGRAM, NETIO_IPV4, 0}, {UDP6, NETIO_DGRAM, NETIO_IPV6, 0},
        {PEERED, NETIO_DGRAM, NETIO_IPV4, 0},
    };
    // clang-format on
    for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        netio_socket s, other;
        int value;
        if (!kind_open(&s, &other, wants[i].kind)) continue;
        CHECK_OK(netio_get_option(s, NETIO_OPT_TYPE, &value));
        CHECK_EQ(wants[i].type, value);
        CHECK_OK(netio_get_option(s, NETIO_OPT_FAMILY, &value));
        CHECK_EQ(wants[i].family, value);
        if (netio_option_supported(NETIO_OPT_LISTENING)) {
            CHECK_OK(netio_get_option(s, NETIO_OPT_LISTENING, &value));
            CHECK_EQ(wants[i].listening, value);
        }
        kind_close(&s, &other);
    }
}

TEST(option, bytes_that_wait_are_counted)
{
    static char data[1 << 18];
    netio_socket s, other;
    int value = -1;
    CHECK(kind_open(&s, &other, CLIENT));
    CHECK_OK(netio_get_option(s, NETIO_OPT_READABLE, &value));
    CHECK_EQ(0, value);
    CHECK_OK(netio_send_all(other, data, 100, NULL, 5000));
    CHECK_EQ(NETIO_EV_READ, netio_wait(s, NETIO_EV_READ, 5000) & NETIO_EV_READ);
    CHECK_OK(netio_get_option(s, NETIO_OPT_READABLE, &value));
    CHECK_EQ(100, value);
    CHECK_OK(netio_recv_exact(s, data, 60, NULL, 0));
    CHECK_OK(netio_get_option(s, NETIO_OPT_READABLE, &value));
    CHECK_EQ(40, value);
    if (netio_option_supported(NETIO_OPT_UNSENT)) {
        CHECK_OK(netio_get_option(s, NETIO_OPT_UNSENT, &value));
        CHECK_EQ(0, value);
        while (netio_send(s, data, sizeof data, 50) > 0) {} // the peer does not read
        CHECK_OK(netio_get_option(s, NETIO_OPT_UNSENT, &value));
        CHECK(value > 0);
    }
    kind_close(&s, &other);
}

TEST(option, the_mtu_of_a_connected_path)
{
    netio_socket s, other;
    int value = 0;
    if (!netio_option_supported(NETIO_OPT_MTU)) SKIP("not on this system");
    CHECK(kind_open(&s, &other, PEERED));
    CHECK_OK(netio_get_option(s, NETIO_OPT_MTU, &value));
    CHECK_BETWEEN(576, 1 << 20, value);
    kind_close(&s, &other);
    CHECK(kind_open(&s, &other, UDP4));
    CHECK(netio_get_option(s, NETIO_OPT_MTU, &value) < 0); // there is no path
    kind_close(&s, &other);
}

static int dial_with_fastopen(void)
{
    netio_setting queue = {NETIO_OPT_FASTOPEN, 16, NULL};
    netio_setting dial = {NETIO_OPT_FASTOPEN_CONNECT, 1, NULL};
    netio_socket_opts opts = {0};
    netio_socket listener, client, server;
    netio_addr a;
    char text[NETIO_ADDR_TEXT], buf[8];
    long before = fastopen_count();
    if (before < 0) return 77;
    opts.settings = &queue;
    opts.setting_count = 1;
    if (netio_listen(&listener, "127.0.0.1:0", &opts) < 0) return 1;
    if (netio_local_addr(listener, &a) < 0 || netio_addr_format(&a, text, sizeof text) < 0)
        return 2;
    opts.settings = &dial;
    for (int i = 0; i < 2; i++) { // the first fetches the cookie, the second uses it
        if (netio_connect(&client, text, &opts, 5000) < 0) return 3;
        if (netio_send_all(client, "quick", 5, NULL, 5000) < 0) return 4;
        if (netio_accept(&server, listener, NULL, 5000) < 0) return 5;
        if (netio_recv_exact(server, buf, 5, NULL, 5000) < 0 || memcmp(buf, "quick", 5)) return 6;
        if (netio_send_all(server, "reply", 5, NULL, 5000) < 0) return 7;
        if (netio_recv_exact(client, buf, 5, NULL, 5000) < 0) return 8;
        netio_close(&client);
        netio_close(&server);
    }
    netio_close(&listener);
    return fastopen_count() > before ? 0 : 9;
}

TEST(option, fast_open_carries_data_in_the_syn)
{
    int code;
    if (!netio_option_supported(NETIO_OPT_FASTOPEN_CONNECT)) SKIP("not on this system");
    if (test_under("qemu") || test_under("valgrind")) SKIP("unshare is not for emulators");
    code = with_fastopen(dial_with_fastopen);
    if (code == 77) SKIP("needs root, for a network of its own");
    CHECK_EQ(0, code);
}

TEST(option, fast_open_that_is_switched_off_connects_the_normal_way)
{
    netio_setting dial = {NETIO_OPT_FASTOPEN_CONNECT, 1, NULL};
    netio_socket_opts opts = {0};
    netio_socket listener, client, server;
    char text[NETIO_ADDR_TEXT], buf[8];
    test_listen(&listener, text, "127.0.0.1:0"); // it has no Fast Open
    opts.settings = &dial;
    opts.setting_count = netio_option_supported(NETIO_OPT_FASTOPEN_CONNECT) ? 1 : 0;
    CHECK_OK(netio_connect(&client, text, &opts, 5000));
    CHECK_OK(netio_send_all(client, "plain", 5, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    CHECK_OK(netio_recv_exact(server, buf, 5, NULL, 5000));
    CHECK_MEM("plain", buf, 5);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}

TEST(option, two_live_listeners_never_share_a_port_by_reuseaddr)
{
    netio_setting reuse = {NETIO_OPT_REUSEADDR, 1, NULL};
    netio_socket_opts opts = {0};
    netio_socket first, second = NETIO_INVALID_SOCKET;
    char text[NETIO_ADDR_TEXT];
    int err;
    if (on_windows) SKIP("asked for by name, Windows' own flag lets another take the port");
    opts.settings = &reuse;
    opts.setting_count = 1;
    CHECK_OK(netio_listen(&first, "127.0.0.1:0", &opts));
    {
        netio_addr a;
        CHECK_OK(netio_local_addr(first, &a));
        CHECK(netio_addr_format(&a, text, sizeof text) > 0);
    }
    err = netio_listen(&second, text, &opts);
    CHECK_ERR(NETIO_EADDRINUSE, err);
    CHECK_OK(netio_close(&first));
}

TEST(option, reuseport_is_the_oss_flag)
{
    netio_setting reuse = {NETIO_OPT_REUSEPORT, 1, NULL};
    netio_socket_opts opts = {0};
    netio_socket first, second = NETIO_INVALID_SOCKET, third = NETIO_INVALID_SOCKET;
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    opts.settings = &reuse;
    opts.setting_count = 1;
    if (!netio_option_supported(NETIO_OPT_REUSEPORT)) {
        CHECK_ERR(NETIO_ENOTSUP, netio_bind(&first, "127.0.0.1:0", &opts));
        SKIP("not on this system, and netio says so");
    }
    CHECK_OK(netio_bind(&first, "127.0.0.1:0", &opts));
    CHECK_OK(netio_local_addr(first, &a));
    CHECK(netio_addr_format(&a, text, sizeof text) > 0);
    CHECK_OK(netio_bind(&second, text, &opts));
    CHECK_ERR(NETIO_EADDRINUSE, netio_bind(&third, text, NULL));
    CHECK_OK(netio_close(&first));
    CHECK_OK(netio_close(&second));
}

//================================================================================================
// By level and name
//================================================================================================

TEST(option, a_raw_option_and_the_typed_one_agree)
{
    netio_socket s, other;
    int value = 100000, typed = 0, raw = 0;
    size_t len = sizeof raw;
    CHECK(kind_open(&s, &other, CLIENT));
    CHECK_OK(netio_set_option_raw(s, SOL_SOCKET, SO_RCVBUF, &value, sizeof value));
    CHECK_OK(netio_get_option(s, NETIO_OPT_RCVBUF, &typed));
    CHECK_OK(netio_get_option_raw(s, SOL_SOCKET, SO_RCVBUF, &raw, &len));
    CHECK_EQ(typed, raw);
    CHECK_EQ(sizeof raw, len);
    CHECK(raw >= value);
    value = 1;
    CHECK_OK(netio_set_option_raw(s, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value));
    CHECK_OK(netio_get_option(s, NETIO_OPT_NODELAY, &typed));
    CHECK_EQ(1, typed);
    CHECK_OK(netio_set_option(s, NETIO_OPT_NODELAY, 0));
    raw = 7;
    len = sizeof raw;
    CHECK_OK(netio_get_option_raw(s, IPPROTO_TCP, TCP_NODELAY, &raw, &len));
    if (len == sizeof raw) CHECK_EQ(0, raw); // Windows may write one byte of it
    kind_close(&s, &other);
}

TEST(option, a_raw_option_of_wrong_length_or_name_is_refused)
{
    netio_socket s, other;
    char one = 1;
    int value = 1, err;
    size_t len = sizeof value;
    CHECK(kind_open(&s, &other, CLIENT));
    err = netio_set_option_raw(s, SOL_SOCKET, SO_RCVBUF, &one, 1);
    if (on_windows) CHECK(err == NETIO_EINVAL || err == NETIO_EIO || err == 0); // WSAEFAULT
    else CHECK_ERR(NETIO_EINVAL, err);
    err = netio_set_option_raw(s, SOL_SOCKET, 0x7eef, &value, sizeof value);
    CHECK_ERR(NETIO_ENOTSUP, err);
    CHECK(netio_os_error() != 0); // the OS's own refusal is kept
    CHECK_ERR(NETIO_ENOTSUP, netio_get_option_raw(s, SOL_SOCKET, 0x7eef, &value, &len));
    CHECK(netio_set_option_raw(s, SOL_SOCKET, SO_RCVBUF, NULL, sizeof value) < 0);
    kind_close(&s, &other);
}

//================================================================================================

// clang-format off
TEST_MAIN("option",
    T(option, what_is_set_reads_back_and_what_is_out_of_range_is_einval),
    T(option, every_settable_number_is_in_the_table),
    T(option, supported_is_what_calls_accept),
    T(option, names_are_there_and_differ),
    T(option, a_kind_that_lacks_it_says_enotsup),
    T(option, v6only_of_an_ipv4_socket_is_refused),
    T(option, too_late_is_einval),
    T(option, unknown_and_read_only_numbers_are_refused),
    T(option, the_invalid_socket_is_ebadf_for_every_option),
    T(option, a_descriptor_that_is_no_socket_is_enotsock),
    T(option, congestion_goes_by_name),
    T(option, a_device_is_bound_by_name),
    T(option, keepalive_in_one_call),
    T(option, keepalive_starts_the_kernels_timer),
    T(option, linger_zero_resets_and_linger_off_delivers),
    T(option, rcvtimeo_and_sndtimeo_reach_the_os),
    T(option, nodelay_lets_small_writes_go_at_once),
    T(option, a_failed_connect_is_pending_once),
    T(option, type_family_and_listening_can_be_asked),
    T(option, bytes_that_wait_are_counted),
    T(option, the_mtu_of_a_connected_path),
    T(option, fast_open_carries_data_in_the_syn),
    T(option, fast_open_that_is_switched_off_connects_the_normal_way),
    T(option, two_live_listeners_never_share_a_port_by_reuseaddr),
    T(option, reuseport_is_the_oss_flag),
    T(option, a_raw_option_and_the_typed_one_agree),
    T(option, a_raw_option_of_wrong_length_or_name_is_refused))
