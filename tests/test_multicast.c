// Multicast: joining and leaving groups, from anyone or one source, on an interface that is there
// or not; who hears what; loop, hops and the way out. Everything stays on the loopback interface,
// or in a network that a child process has for itself.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <fcntl.h>
#include <sched.h>
#endif

//================================================================================================
// The system, where the public calls have no words for it
//================================================================================================

#ifdef _WIN32
static unsigned process_id(void) { return (unsigned)GetCurrentProcessId(); }
#else
static unsigned process_id(void) { return (unsigned)getpid(); }
#endif

enum { CANNOT = 77 };

// In a child process: what fails is printed, and ends the child's part.
#define NEED(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            printf("    %s:%d: %s\n", __FILE__, __LINE__, #cond);                                  \
            fflush(stdout);                                                                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

#ifdef __linux__
static const bool on_linux = true;

static bool interface_up(const char *name)
{
    struct ifreq r;
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    bool ok;
    memset(&r, 0, sizeof r);
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    r.ifr_flags = IFF_UP;
    ok = s >= 0 && ioctl(s, SIOCSIFFLAGS, &r) == 0;
    if (s >= 0) close(s);
    return ok;
}

// An interface "far0" that is there while its descriptor is open. (The numbers are those of
// <linux/if_tun.h>, which not every compiler here can find.)
static int interface_open(void)
{
    struct ifreq r;
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) return -1;
    memset(&r, 0, sizeof r);
    memcpy(r.ifr_name, "far0", 5);
    r.ifr_flags = 0x1001; // IFF_TUN | IFF_NO_PI
    if (ioctl(fd, 0x400454caul /* TUNSETIFF */, &r) == 0 && interface_up("far0")) return fd;
    close(fd);
    return -1;
}

// Run a function in a child whose network is its own, with "lo" up. CANNOT: no right to.
static int in_own_network(int (*run)(void))
{
    int status = 0;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) _exit(CANNOT);
        _exit(interface_up("lo") ? run() : CANNOT);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

// Whether the kernel knows of a member of this group on the loopback interface; -1: cannot be told.
static int kernel_member(const netio_addr *group)
{
    char line[200], hex[16];
    uint32_t word;
    int found = 0, index = 0;
    FILE *f = fopen("/proc/net/igmp", "r");
    if (!f) return -1;
    memcpy(&word, netio_addr_ip(group).data, 4);
    snprintf(hex, sizeof hex, "%08X", (unsigned)word);
    while (fgets(line, sizeof line, f)) {
        if (line[0] >= '1' && line[0] <= '9') index = atoi(line);
        else if (index == 1 && strstr(line, hex)) found = 1;
    }
    fclose(f);
    return found;
}
#else
static const bool on_linux = false;
static int in_own_network(int (*run)(void))
{
    (void)run;
    return CANNOT;
}
static int kernel_member(const netio_addr *group)
{
    (void)group;
    return -1;
}
#endif

//================================================================================================
// Helpers
//================================================================================================

// Groups that no other process uses at the same time: 239.100.x.y and up.
static netio_addr group(unsigned number, uint16_t port)
{
    netio_addr a;
    unsigned char ip[4];
    ip[0] = 239;
    ip[1] = (unsigned char)(100 + number);
    ip[2] = (unsigned char)(process_id() >> 8);
    ip[3] = (unsigned char)process_id();
    CHECK_OK(netio_addr_from_ip(&a, ip, 4, port));
    return a;
}

static netio_addr parsed(const char *text)
{
    netio_addr a;
    CHECK_OK(netio_addr_parse(&a, text, strlen(text)));
    return a;
}

static uint32_t loopback(void)
{
    uint32_t index = netio_interface_index("127.0.0.1");
    CHECK(index != 0);
    return index;
}

static uint16_t port_of(netio_socket s)
{
    netio_addr a;
    CHECK_OK(netio_local_addr(s, &a));
    return netio_addr_port(&a);
}

// A sender to groups by way of the loopback interface, which its own address implies everywhere.
static netio_socket open_sender(const char *address)
{
    netio_socket s;
    CHECK_OK(netio_bind(&s, address, NULL));
    CHECK_OK(netio_set_option(s, NETIO_OPT_MULTICAST_TTL, 0)); // not beyond this machine
    return s;
}

// A receiver on a port that others may share.
static netio_socket open_receiver(uint16_t port)
{
    netio_socket s;
    netio_socket_opts opts = {0};
    char text[32];
    opts.share_group = true;
    snprintf(text, sizeof text, "0.0.0.0:%u", (unsigned)port);
    CHECK_OK(netio_bind(&s, text, &opts));
    return s;
}

static void say(netio_socket s, netio_addr to, const char *what)
{
    CHECK_ERR(strlen(what), netio_sendto(s, what, strlen(what), &to, 1000));
}

static void hears(netio_socket s, const char *what)
{
    char buf[32];
    ptrdiff_t n = netio_recv(s, buf, sizeof buf - 1, 5000);
    CHECK(n >= 0);
    buf[n] = 0;
    CHECK_STR(what, buf);
}

// Nothing of what was said before lies there: the next that comes is said now, to this one alone.
static void hears_nothing(netio_socket s, netio_socket sender)
{
    netio_addr a;
    char buf[32];
    CHECK_OK(netio_addr_loopback(&a, NETIO_IPV4, port_of(s)));
    say(sender, a, "now");
    hears(s, "now");
    CHECK_ERR(NETIO_EAGAIN, netio_recv(s, buf, sizeof buf, 0));
}

// Wine has one number for all that it cannot translate.
static void not_joined(int err)
{
    if (err != NETIO_EINVAL || !test_under("wine")) CHECK_ERR(NETIO_ENOENT, err);
}

// Wine and qemu-user run on Linux without its switch for one's own groups alone.
static bool own_groups_alone(void) { return !test_under("wine") && !test_under("qemu"); }

//================================================================================================
// Joining and leaving
//================================================================================================

TEST(multicast, a_joined_group_is_heard_until_it_is_left)
{
    netio_socket s = open_sender("127.0.0.1:0"), r = open_receiver(0);
    netio_addr g = group(1, port_of(r));
    say(s, g, "early");
    hears_nothing(r, s);
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL));
    say(s, g, "one");
    say(s, g, "two");
    hears(r, "one");
    hears(r, "two");
    CHECK_OK(netio_multicast_leave(r, &g, loopback(), NULL));
    say(s, g, "late");
    hears_nothing(r, s);
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL)); // again
    say(s, g, "back");
    hears(r, "back");
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, the_interface_goes_by_number_name_and_address)
{
    static const char *const texts[] = {"127.0.0.1", "1", "lo"};
    for (int i = 0; i < (on_linux ? 3 : 1); i++) {
        netio_socket s = open_sender("127.0.0.1:0"), r = open_receiver(0);
        netio_addr g = group(2, port_of(r));
        uint32_t index = netio_interface_index(texts[i]);
        CHECK_EQ(loopback(), index);
        CHECK_OK(netio_multicast_join(r, &g, index, NULL));
        say(s, g, "heard");
        hears(r, "heard");
        CHECK_OK(netio_multicast_leave(r, &g, index, NULL));
        CHECK_OK(netio_close(&s));
        CHECK_OK(netio_close(&r));
    }
}

TEST(multicast, joining_twice_is_eexist_and_leaving_without_it_enoent)
{
    netio_socket r = open_receiver(0);
    netio_addr g = group(3, 9), other = group(4, 9);
    uint32_t lo = loopback();
    not_joined(netio_multicast_leave(r, &g, lo, NULL));
    CHECK_OK(netio_multicast_join(r, &g, lo, NULL));
    CHECK_ERR(NETIO_EEXIST, netio_multicast_join(r, &g, lo, NULL));
    netio_addr_set_port(&g, 0); // a port is no part of a membership
    CHECK_ERR(NETIO_EEXIST, netio_multicast_join(r, &g, lo, NULL));
    not_joined(netio_multicast_leave(r, &other, lo, NULL));
    CHECK_OK(netio_multicast_leave(r, &g, lo, NULL));
    not_joined(netio_multicast_leave(r, &g, lo, NULL));
    CHECK_OK(netio_multicast_join(r, &g, lo, NULL));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, what_is_no_group_is_einval)
{
    static const char *const texts[] = {
        "127.0.0.1:9", "0.0.0.0:9", "255.255.255.255:9", "223.255.255.255:9", "240.0.0.0:9",
        "[::1]:9",     "[::]:9",    "[fe80::1]:9"};
    netio_socket r = open_receiver(0);
    netio_addr a;
    uint32_t lo = loopback();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        a = parsed(texts[i]);
        CHECK_ERR(NETIO_EINVAL, netio_multicast_join(r, &a, lo, NULL));
        CHECK_ERR(NETIO_EINVAL, netio_multicast_leave(r, &a, lo, NULL));
    }
    CHECK_ERR(NETIO_EINVAL, netio_multicast_join(r, NULL, lo, NULL));
    CHECK_ERR(NETIO_EINVAL, netio_multicast_leave(r, NULL, lo, NULL));
    memset(&a, 0, sizeof a);
    CHECK_ERR(NETIO_EINVAL, netio_multicast_join(r, &a, lo, NULL));
    if (netio_addr_parse(&a, "unix:/tmp/x", 11) == 0)
        CHECK_ERR(NETIO_EINVAL, netio_multicast_join(r, &a, lo, NULL));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, families_that_differ_are_einval)
{
    netio_socket r = open_receiver(0);
    netio_addr g4 = group(5, 9), g6 = parsed("[ff02::1234]:9");
    netio_addr from4 = parsed("127.0.0.1:9"), from6 = parsed("[::1]:9"), none;
    uint32_t lo = loopback();
    memset(&none, 0, sizeof none);
    CHECK_ERR(NETIO_EINVAL, netio_multicast_join(r, &g4, lo, &from6));
    CHECK_ERR(NETIO_EINVAL, netio_multicast_join(r, &g6, lo, &from4));
    CHECK_ERR(NETIO_EINVAL, netio_multicast_join(r, &g4, lo, &none));
    CHECK_ERR(NETIO_EINVAL, netio_multicast_leave(r, &g4, lo, &from6));
    CHECK_ERR(NETIO_EINVAL, netio_multicast_join(r, &g6, lo, NULL)); // of socket and group
    CHECK_OK(netio_close(&r));
}

TEST(multicast, other_sockets_are_refused)
{
    netio_socket none = NETIO_INVALID_SOCKET, pair[2];
    netio_addr g = group(6, 9);
    CHECK_ERR(NETIO_EBADF, netio_multicast_join(none, &g, loopback(), NULL));
    CHECK_ERR(NETIO_EBADF, netio_multicast_leave(none, &g, loopback(), NULL));
    CHECK_OK(netio_pair(pair, NETIO_DGRAM));
    // Unix sockets, but on Windows a pair is of UDP.
    if (netio_local_addr(pair[0], &g) == 0 && netio_addr_family(&g) != NETIO_IPV4) {
        g = group(6, 9);
        CHECK(netio_multicast_join(pair[0], &g, loopback(), NULL) < 0);
    }
    CHECK_OK(netio_close(&pair[0]));
    CHECK_OK(netio_close(&pair[1]));
}

TEST(multicast, an_unknown_interface_is_enodev)
{
    netio_socket r = open_receiver(0);
    netio_addr g = group(7, 9);
    CHECK_ERR(NETIO_ENODEV, netio_multicast_join(r, &g, 999999, NULL));
    CHECK(netio_multicast_leave(r, &g, 999999, NULL) < 0);
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL)); // no harm was done
    CHECK_OK(netio_close(&r));
}

TEST(multicast, too_many_groups_are_named_and_the_others_stay)
{
    netio_socket s = open_sender("127.0.0.1:0"), r = open_receiver(0);
    netio_addr first = group(8, port_of(r));
    int err = 0, joined = 0;
    CHECK_OK(netio_multicast_join(r, &first, loopback(), NULL));
    for (; joined < 600 && err == 0; joined++) {
        netio_addr g;
        unsigned char ip[4] = {239, 99, 0, 0};
        ip[2] = (unsigned char)(joined >> 8);
        ip[3] = (unsigned char)joined;
        CHECK_OK(netio_addr_from_ip(&g, ip, 4, 0));
        err = netio_multicast_join(r, &g, loopback(), NULL);
    }
    // Linux: 20 a socket, unless changed.
    if (err < 0) CHECK(err == NETIO_ENOBUFS || (err == NETIO_EINVAL && test_under("wine")));
    else CHECK_EQ(600, joined);
    say(s, first, "still");
    hears(r, "still");
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, several_groups_on_one_socket_and_the_destination_tells_which)
{
    netio_socket s = open_sender("127.0.0.1:0"), r = open_receiver(0);
    netio_addr g[3];
    uint32_t lo = loopback();
    for (unsigned i = 0; i < 3; i++) {
        g[i] = group(9 + i, port_of(r));
        CHECK_OK(netio_multicast_join(r, &g[i], lo, NULL));
    }
    if (netio_option_supported(NETIO_OPT_RECV_LOCAL))
        CHECK_OK(netio_set_option(r, NETIO_OPT_RECV_LOCAL, 1));
    for (int i = 0; i < 3; i++) {
        netio_datagram m;
        char buf[8];
        say(s, g[i], "which");
        memset(&m, 0, sizeof m);
        m.data = buf;
        m.cap = sizeof buf;
        CHECK_ERR(1, netio_recv_batch(r, &m, 1, 5000));
        CHECK_EQ(5, m.len);
        if (!netio_option_supported(NETIO_OPT_RECV_LOCAL)) continue;
        CHECK(netio_addr_equal_host(&g[i], &m.local));
        if (!test_under("qemu")) CHECK_EQ(lo, m.ifindex); // which does not translate it
        // A group is no source: the answer comes from an address of this machine all the same.
        if (test_under("qemu")) m.ifindex = 0;
        CHECK_ERR(1, netio_send_batch(r, &m, 1, 1000));
        hears(s, "which");
    }
    CHECK_OK(netio_multicast_leave(r, &g[1], lo, NULL));
    say(s, g[1], "left");
    say(s, g[2], "kept");
    hears(r, "kept");
    hears_nothing(r, s);
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, closing_ends_the_membership)
{
    netio_socket r = open_receiver(0);
    netio_addr g = group(12, 9);
    if (test_under("qemu") || kernel_member(&g) < 0) {
        CHECK_OK(netio_close(&r));
        SKIP("the kernel's list cannot be read here");
    }
    CHECK_EQ(0, kernel_member(&g));
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL));
    CHECK_EQ(1, kernel_member(&g));
    CHECK_OK(netio_multicast_leave(r, &g, loopback(), NULL));
    CHECK_EQ(0, kernel_member(&g));
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL));
    CHECK_OK(netio_close(&r));
    CHECK_EQ(0, kernel_member(&g));
}

//================================================================================================
// From one source
//================================================================================================

// Joins, or skips the test where only the older calls are there, which have no sources.
static void join_source(netio_socket r, const netio_addr *g, const netio_addr *source)
{
    int err = netio_multicast_join(r, g, loopback(), source);
    if (err == NETIO_ENOTSUP && (test_under("wine") || test_under("qemu"))) {
        CHECK_ERR(NETIO_ENOTSUP, netio_multicast_leave(r, g, loopback(), source));
        CHECK_OK(netio_close(&r));
        SKIP("no sources here, and netio says so");
    }
    CHECK_OK(err);
}

TEST(multicast, from_one_source_alone)
{
    netio_socket r = open_receiver(0), wanted, other;
    netio_addr g = group(13, port_of(r)), source = parsed("127.0.0.1:0");
    join_source(r, &g, &source);
    wanted = open_sender("127.0.0.1:0");
    other = open_sender("127.0.0.2:0");
    say(other, g, "stranger");
    say(wanted, g, "friend");
    hears(r, "friend");
    say(other, g, "stranger");
    hears_nothing(r, wanted);
    CHECK_OK(netio_multicast_leave(r, &g, loopback(), &source));
    say(wanted, g, "friend");
    hears_nothing(r, wanted);
    CHECK_OK(netio_close(&wanted));
    CHECK_OK(netio_close(&other));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, several_sources_of_one_group)
{
    netio_socket r = open_receiver(0), s[3];
    netio_addr g = group(14, port_of(r));
    netio_addr source[2] = {parsed("127.0.0.1:0"), parsed("127.0.0.2:0")};
    uint32_t lo = loopback();
    if (test_under("wine")) {
        // The two systems have the fields in different orders, and Wine hands them on as they are.
        CHECK_OK(netio_close(&r));
        SKIP("Wine takes the source for the interface");
    }
    join_source(r, &g, &source[0]);
    CHECK_ERR(NETIO_EEXIST, netio_multicast_join(r, &g, lo, &source[0]));
    CHECK_ERR(NETIO_ENOENT, netio_multicast_leave(r, &g, lo, &source[1]));
    CHECK_OK(netio_multicast_join(r, &g, lo, &source[1]));
    s[0] = open_sender("127.0.0.1:0");
    s[1] = open_sender("127.0.0.2:0");
    s[2] = open_sender("127.0.0.3:0");
    say(s[2], g, "third");
    say(s[0], g, "first");
    say(s[1], g, "second");
    hears(r, "first");
    hears(r, "second");
    CHECK_OK(netio_multicast_leave(r, &g, lo, &source[0]));
    CHECK_ERR(NETIO_ENOENT, netio_multicast_leave(r, &g, lo, &source[0]));
    say(s[0], g, "first");
    say(s[1], g, "second");
    hears(r, "second");
    hears_nothing(r, s[0]);
    // From some and from anyone are two things that one socket cannot want of one group.
    CHECK(netio_multicast_join(r, &g, lo, NULL) < 0);
    CHECK_OK(netio_multicast_leave(r, &g, lo, &source[1]));
    CHECK_OK(netio_multicast_join(r, &g, lo, NULL));
    for (int i = 0; i < 3; i++) CHECK_OK(netio_close(&s[i]));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, a_source_on_an_unknown_interface_is_enodev)
{
    netio_socket r = open_receiver(0);
    netio_addr g = group(15, 9), source = parsed("127.0.0.1:0");
    int err = netio_multicast_join(r, &g, 999999, &source);
    if (err == NETIO_ENOTSUP && (test_under("wine") || test_under("qemu"))) {
        CHECK_OK(netio_close(&r));
        SKIP("no sources here, and netio says so");
    }
    CHECK_ERR(NETIO_ENODEV, err);
    CHECK(netio_multicast_leave(r, &g, loopback(), &source) < 0);
    CHECK_OK(netio_close(&r));
}

//================================================================================================
// Several subscribers
//================================================================================================

TEST(multicast, subscribers_on_one_port_all_get_everything)
{
    netio_socket s = open_sender("127.0.0.1:0"), r[3], foreign = NETIO_INVALID_SOCKET;
    netio_addr g;
    char text[32];
    r[0] = open_receiver(0);
    r[1] = open_receiver(port_of(r[0]));
    r[2] = open_receiver(port_of(r[0]));
    g = group(16, port_of(r[0]));
    snprintf(text, sizeof text, "0.0.0.0:%u", (unsigned)port_of(r[0]));
    CHECK_ERR(NETIO_EADDRINUSE, netio_bind(&foreign, text, NULL)); // who does not ask, shares not
    for (int i = 0; i < 3; i++) CHECK_OK(netio_multicast_join(r[i], &g, loopback(), NULL));
    for (int k = 0; k < 20; k++) {
        char what[8];
        snprintf(what, sizeof what, "n%d", k);
        say(s, g, what);
    }
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 20; k++) {
            char what[8];
            snprintf(what, sizeof what, "n%d", k);
            hears(r[i], what);
        }
    }
    // One leaves, the others hear on.
    CHECK_OK(netio_multicast_leave(r[1], &g, loopback(), NULL));
    say(s, g, "rest");
    hears(r[0], "rest");
    hears(r[2], "rest");
    if (own_groups_alone()) CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(r[1], text, sizeof text, 50));
    for (int i = 0; i < 3; i++) CHECK_OK(netio_close(&r[i]));
    CHECK_OK(netio_close(&s));
}

#ifndef _WIN32
// The other process: joins, says so, and hands back what it hears.
static int subscriber(netio_socket pipe, netio_addr g)
{
    netio_socket s;
    netio_socket_opts opts = {0};
    char text[32], buf[32];
    ptrdiff_t n;
    opts.share_group = true;
    snprintf(text, sizeof text, "0.0.0.0:%u", (unsigned)netio_addr_port(&g));
    NEED(netio_bind(&s, text, &opts) == 0);
    NEED(netio_multicast_join(s, &g, netio_interface_index("127.0.0.1"), NULL) == 0);
    NEED(netio_send(pipe, "ready", 5, 1000) == 5);
    for (int i = 0; i < 10; i++) {
        n = netio_recv(s, buf, sizeof buf, 5000);
        NEED(n > 0 && netio_send(pipe, buf, (size_t)n, 5000) == n);
    }
    return 0;
}

TEST(multicast, subscribers_in_two_processes_both_get_everything)
{
    netio_socket s = open_sender("127.0.0.1:0"), r = open_receiver(0), pair[2];
    netio_addr g = group(17, port_of(r));
    int status = -1;
    pid_t pid;
    CHECK_OK(netio_pair(pair, NETIO_DGRAM));
    fflush(stdout);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) _exit(subscriber(pair[1], g));
    hears(pair[0], "ready");
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL));
    for (int k = 0; k < 10; k++) {
        char what[8];
        snprintf(what, sizeof what, "m%d", k);
        say(s, g, what);
        hears(r, what);
        hears(pair[0], what);
    }
    CHECK_EQ(pid, waitpid(pid, &status, 0));
    CHECK_EQ(0, status);
    say(s, g, "alone"); // the other's end is not ours
    hears(r, "alone");
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
    CHECK_OK(netio_close(&pair[0]));
    CHECK_OK(netio_close(&pair[1]));
}
#else
TEST(multicast, subscribers_in_two_processes_both_get_everything)
{
    SKIP("no fork here; the sockets of one process show it");
}
#endif

TEST(multicast, groups_that_others_joined_are_not_heard)
{
    netio_socket s, a, b;
    netio_addr ga, gb, both;
    if (!own_groups_alone()) SKIP("Wine and qemu-user cannot ask Linux for that");
    s = open_sender("127.0.0.1:0");
    a = open_receiver(0);
    b = open_receiver(port_of(a));
    ga = group(18, port_of(a));
    gb = group(19, port_of(a));
    both = group(20, port_of(a));
    CHECK_OK(netio_multicast_join(a, &ga, loopback(), NULL));
    CHECK_OK(netio_multicast_join(b, &gb, loopback(), NULL));
    CHECK_OK(netio_multicast_join(a, &both, loopback(), NULL));
    CHECK_OK(netio_multicast_join(b, &both, loopback(), NULL));
    say(s, ga, "for a");
    say(s, gb, "for b");
    say(s, both, "both");
    hears(a, "for a");
    hears(a, "both");
    hears(b, "for b");
    hears(b, "both");
    // Also after it left its own.
    CHECK_OK(netio_multicast_leave(b, &gb, loopback(), NULL));
    say(s, ga, "for a");
    say(s, both, "both");
    hears(b, "both");
    hears(a, "for a");
    hears(a, "both");
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_close(&b));
}

//================================================================================================
// Sending
//================================================================================================

TEST(multicast, hops_are_one_unless_set_and_loop_is_on)
{
    static const char *const addresses[] = {"127.0.0.1:0", "[::1]:0"};
    for (int i = 0; i < 2; i++) {
        netio_socket s;
        int value = 0;
        if (netio_bind(&s, addresses[i], NULL) < 0) continue; // no IPv6
        CHECK_OK(netio_get_option(s, NETIO_OPT_MULTICAST_TTL, &value));
        CHECK_EQ(1, value);
        CHECK_OK(netio_set_option(s, NETIO_OPT_MULTICAST_TTL, 7));
        CHECK_OK(netio_get_option(s, NETIO_OPT_MULTICAST_TTL, &value));
        CHECK_EQ(7, value);
        CHECK_ERR(NETIO_EINVAL, netio_set_option(s, NETIO_OPT_MULTICAST_TTL, 256));
        CHECK_ERR(NETIO_EINVAL, netio_set_option(s, NETIO_OPT_MULTICAST_TTL, -1));
        CHECK_OK(netio_get_option(s, NETIO_OPT_MULTICAST_LOOP, &value));
        CHECK_EQ(1, value);
        CHECK_OK(netio_close(&s));
    }
}

TEST(multicast, the_hops_that_were_set_arrive)
{
    netio_socket s = open_sender("127.0.0.1:0"), r = open_receiver(0);
    netio_addr g = group(21, port_of(r));
    netio_datagram m;
    char buf[8];
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL));
    if (!netio_option_supported(NETIO_OPT_RECV_TTL) || test_under("qemu")) {
        CHECK_OK(netio_close(&s));
        CHECK_OK(netio_close(&r));
        SKIP("hops cannot be read here");
    }
    CHECK_OK(netio_set_option(r, NETIO_OPT_RECV_TTL, 1));
    for (int hops = 1; hops <= 3; hops++) {
        CHECK_OK(netio_set_option(s, NETIO_OPT_MULTICAST_TTL, hops));
        say(s, g, "hop");
        memset(&m, 0, sizeof m);
        m.data = buf;
        m.cap = sizeof buf;
        CHECK_ERR(1, netio_recv_batch(r, &m, 1, 5000));
        CHECK_EQ(hops, m.ttl);
    }
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, with_loop_off_there_is_no_copy_for_this_machine)
{
    netio_socket s = open_sender("127.0.0.1:0"), r = open_receiver(0);
    netio_addr g = group(22, port_of(r));
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL));
    // On Windows the receiver's counts, elsewhere the sender's.
    CHECK_OK(netio_set_option(s, NETIO_OPT_MULTICAST_LOOP, 0));
    CHECK_OK(netio_set_option(r, NETIO_OPT_MULTICAST_LOOP, 0));
    say(s, g, "off");
    // The loopback device itself gives back what is sent on it, but not twice.
    if (netio_wait(r, NETIO_EV_READ, 50) > 0) {
        hears(r, "off");
        hears_nothing(r, s);
    }
    CHECK_OK(netio_set_option(s, NETIO_OPT_MULTICAST_LOOP, 1));
    CHECK_OK(netio_set_option(r, NETIO_OPT_MULTICAST_LOOP, 1));
    say(s, g, "on");
    hears(r, "on");
    hears_nothing(r, s);
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, the_way_out_is_chosen_by_number)
{
    netio_socket s, r = open_receiver(0);
    netio_addr g = group(23, port_of(r)), from;
    char buf[16];
    int index = -1, err;
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL));
    CHECK_OK(netio_bind(&s, "0.0.0.0:0", NULL));
    CHECK_OK(netio_set_option(s, NETIO_OPT_MULTICAST_TTL, 0));
    err = netio_set_option(s, NETIO_OPT_MULTICAST_IF, (int)loopback());
    if (err < 0 && (test_under("qemu") || test_under("wine"))) {
        CHECK_OK(netio_close(&s));
        CHECK_OK(netio_close(&r));
        SKIP("cannot be set here by number, and netio says so");
    }
    CHECK_OK(err);
    CHECK_OK(netio_get_option(s, NETIO_OPT_MULTICAST_IF, &index));
    CHECK_EQ(loopback(), index);
    say(s, g, "out");
    CHECK_ERR(3, netio_recvfrom(r, buf, sizeof buf, &from, 5000));
    CHECK(netio_addr_class(&from) & NETIO_ADDR_LOOPBACK);
    CHECK_ERR(NETIO_ENODEV, netio_set_option(s, NETIO_OPT_MULTICAST_IF, 999999));
    CHECK_ERR(NETIO_EINVAL, netio_set_option(s, NETIO_OPT_MULTICAST_IF, -1));
    CHECK_OK(netio_get_option(s, NETIO_OPT_MULTICAST_IF, &index));
    CHECK_EQ(loopback(), index); // as it was
    CHECK_OK(netio_set_option(s, NETIO_OPT_MULTICAST_IF, 0));
    CHECK_OK(netio_get_option(s, NETIO_OPT_MULTICAST_IF, &index));
    CHECK_EQ(0, index);
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, a_dual_stack_socket_sends_and_hears_ipv4_groups)
{
    netio_socket s, r, local = open_sender("127.0.0.1:0");
    netio_addr g, from;
    char buf[16];
    CHECK_OK(netio_bind(&r, ":0", NULL));
    CHECK_OK(netio_local_addr(r, &from));
    g = group(24, netio_addr_port(&from));
    if (netio_addr_family(&from) != NETIO_IPV6) {
        CHECK_OK(netio_close(&r));
        CHECK_OK(netio_close(&local));
        SKIP("no dual-stack sockets here");
    }
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL));
    CHECK_ERR(NETIO_EEXIST, netio_multicast_join(r, &g, loopback(), NULL));
    say(local, g, "four");
    CHECK_ERR(4, netio_recvfrom(r, buf, sizeof buf, &from, 5000));
    CHECK_EQ(NETIO_IPV4, netio_addr_family(&from));
    // Out again: the chosen interface holds for both families.
    CHECK_OK(netio_bind(&s, ":0", NULL));
    CHECK_OK(netio_set_option(s, NETIO_OPT_MULTICAST_TTL, 0));
    if (netio_set_option(s, NETIO_OPT_MULTICAST_IF, (int)loopback()) == 0 && on_linux &&
        !test_under("qemu")) {
        say(s, g, "six");
        CHECK_ERR(3, netio_recvfrom(r, buf, sizeof buf, &from, 2000));
        CHECK(netio_addr_class(&from) & NETIO_ADDR_LOOPBACK);
    }
    CHECK_OK(netio_multicast_leave(r, &g, loopback(), NULL));
    not_joined(netio_multicast_leave(r, &g, loopback(), NULL));
    CHECK_OK(netio_close(&local));
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
}

TEST(multicast, a_batch_goes_to_groups_by_its_own_interface)
{
    netio_socket s, r = open_receiver(0);
    netio_addr g = group(25, port_of(r));
    netio_datagram m[3];
    char buf[3][8];
    CHECK_OK(netio_multicast_join(r, &g, loopback(), NULL));
    CHECK_OK(netio_bind(&s, "0.0.0.0:0", NULL));
    CHECK_OK(netio_set_option(s, NETIO_OPT_MULTICAST_TTL, 0));
    if (!on_linux || test_under("qemu")) {
        CHECK_OK(netio_close(&s));
        CHECK_OK(netio_close(&r));
        SKIP("Wine does not look at the number, and qemu-user does not translate it");
    }
    memset(m, 0, sizeof m);
    for (int i = 0; i < 3; i++) {
        m[i].data = buf[i];
        m[i].len = 2;
        m[i].peer = g;
        m[i].ifindex = loopback();
        snprintf(buf[i], sizeof buf[i], "g%d", i);
    }
    CHECK_ERR(3, netio_send_batch(s, m, 3, 1000));
    hears(r, "g0");
    hears(r, "g1");
    hears(r, "g2");
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
}

//================================================================================================
// In a network of its own: IPv6, interfaces that vanish
//================================================================================================

#ifdef __linux__
static int receives(netio_socket s, const char *what) // 1: this, 0: nothing, -1: something else
{
    char buf[32];
    ptrdiff_t n = netio_recv(s, buf, sizeof buf, what ? 2000 : 50);
    if (n < 0) return 0;
    return what && (size_t)n == strlen(what) && memcmp(buf, what, (size_t)n) == 0 ? 1 : -1;
}

static bool sends(netio_socket s, const netio_addr *to, const char *what)
{
    return netio_sendto(s, what, strlen(what), to, 1000) == (ptrdiff_t)strlen(what);
}

// A link-local address of the interface, which the kernel makes by itself, soon.
static bool own_link_local(uint32_t index, netio_addr *out)
{
    for (int i = 0; i < 200; i++) {
        netio_interface list[16];
        ptrdiff_t n = netio_interfaces(list, 16);
        for (ptrdiff_t k = 0; k < n && k < 16; k++) {
            if (list[k].index != index || netio_addr_family(&list[k].addr) != NETIO_IPV6) continue;
            *out = list[k].addr;
            return true;
        }
        test_sleep_ms(10);
    }
    return false;
}

static bool text_parse(netio_addr *out, const char *text, uint16_t port)
{
    if (netio_addr_parse(out, text, strlen(text)) < 0) return false;
    netio_addr_set_port(out, port);
    return true;
}

// A new address is of no use as a source until the kernel has looked it over in the background.
static bool settled(netio_socket s, netio_socket r, const netio_addr *to)
{
    char buf[8];
    for (int i = 0; i < 200 && !sends(s, to, "warm"); i++) test_sleep_ms(10);
    return netio_recv(r, buf, sizeof buf, 2000) == 4;
}

// Receives one, sees that it was sent to `to`, and unless that is a group sends it back.
static bool told(netio_socket r, const netio_addr *to, uint32_t index)
{
    netio_datagram m;
    char buf[8];
    memset(&m, 0, sizeof m);
    m.data = buf;
    m.cap = sizeof buf;
    if (netio_recv_batch(r, &m, 1, 2000) != 1 || m.len != 4 || m.ifindex != index) return false;
    if (netio_addr_scope(&m.local) != index) return false;
    if (memcmp(netio_addr_ip(to).data, netio_addr_ip(&m.local).data, 16) != 0) return false;
    if (netio_addr_class(to) & NETIO_ADDR_MULTICAST) return true;
    return netio_send_batch(r, &m, 1, 1000) == 1;
}

static int ipv6_groups(void)
{
    netio_socket s, r, second, alone;
    netio_socket_opts opts = {0};
    netio_addr g, zoned, a, own, other, ssm;
    uint32_t far;
    int index = 0, link = interface_open();
    char text[32];
    if (link < 0) return CANNOT;
    far = netio_interface_index("far0");
    NEED(far > 1);
    if (!own_link_local(far, &own)) return CANNOT; // IPv6 is switched off
    opts.v6_only = true;
    opts.share_group = true;
    NEED(netio_bind(&r, "[::]:0", &opts) == 0 && netio_local_addr(r, &a) == 0);
    snprintf(text, sizeof text, "[::]:%u", (unsigned)netio_addr_port(&a));
    NEED(netio_bind(&second, text, &opts) == 0);
    NEED(netio_bind(&s, "[::]:0", NULL) == 0);
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_IF, (int)far) == 0);
    NEED(netio_get_option(s, NETIO_OPT_MULTICAST_IF, &index) == 0 && index == (int)far);
    NEED(text_parse(&g, "[ff02::1234]:0", netio_addr_port(&a)));
    NEED(text_parse(&zoned, "[ff02::1235%far0]:0", netio_addr_port(&a)));
    // By number, and by the zone of the group.
    NEED(netio_multicast_leave(r, &g, far, NULL) == NETIO_ENOENT);
    NEED(netio_multicast_join(r, &g, far, NULL) == 0);
    NEED(netio_multicast_join(r, &g, far, NULL) == NETIO_EEXIST);
    NEED(netio_multicast_join(r, &zoned, 0, NULL) == 0);
    NEED(netio_multicast_join(r, &zoned, far, NULL) == NETIO_EEXIST);
    NEED(netio_multicast_join(r, &g, 999999, NULL) == NETIO_ENODEV);
    NEED(netio_multicast_join(second, &zoned, far, NULL) == 0);
    NEED(settled(s, r, &g));
    NEED(sends(s, &g, "plain") && receives(r, "plain") == 1);
    NEED(sends(s, &zoned, "zoned") && receives(r, "zoned") == 1);
    NEED(receives(second, "zoned") == 1); // and not "plain", which another socket joined
    // Where it was sent to has its zone, and an answer to a link-local address comes from there.
    NEED(netio_set_option(r, NETIO_OPT_RECV_LOCAL, 1) == 0);
    NEED(sends(s, &g, "told") && told(r, &g, far));
    NEED(netio_set_option(r, NETIO_OPT_RECV_LOCAL, 0) == 0);
    NEED(netio_bind(&alone, "[::]:0", NULL) == 0 && netio_local_addr(alone, &other) == 0);
    NEED(netio_set_option(alone, NETIO_OPT_RECV_LOCAL, 1) == 0);
    netio_addr_set_port(&own, netio_addr_port(&other));
    NEED(sends(s, &own, "told") && told(alone, &own, far));
    NEED(receives(s, "told") == 1 && netio_close(&alone) == 0);
    // Without a copy for this machine.
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_LOOP, 0) == 0);
    NEED(sends(s, &g, "unheard") && receives(r, NULL) == 0);
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_LOOP, 1) == 0);
    NEED(netio_multicast_leave(r, &g, far, NULL) == 0);
    NEED(netio_multicast_leave(r, &g, far, NULL) == NETIO_ENOENT);
    NEED(sends(s, &g, "left") && receives(r, NULL) == 0);
    // From one source.
    NEED(text_parse(&ssm, "[ff32::1236]:0", netio_addr_port(&a)));
    NEED(text_parse(&other, "[fe80::dead%far0]:0", 0));
    NEED(netio_multicast_join(r, &ssm, far, &other) == 0);
    NEED(sends(s, &ssm, "stranger") && receives(r, NULL) == 0);
    NEED(netio_multicast_join(r, &ssm, far, &own) == 0);
    NEED(netio_multicast_join(r, &ssm, far, &own) == NETIO_EEXIST);
    NEED(sends(s, &ssm, "friend") && receives(r, "friend") == 1);
    NEED(netio_multicast_leave(r, &ssm, far, &own) == 0);
    NEED(netio_multicast_leave(r, &ssm, far, &own) == NETIO_ENOENT);
    NEED(sends(s, &ssm, "friend") && receives(r, NULL) == 0);
    // The interface goes away. Memberships on it can be left, not made.
    close(link);
    NEED(netio_interface_index("far0") == 0);
    NEED(netio_multicast_join(r, &g, far, NULL) == NETIO_ENODEV);
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_IF, (int)far) == NETIO_ENODEV);
    NEED(!sends(s, &g, "nowhere"));
    NEED(netio_multicast_leave(r, &zoned, far, NULL) == 0);
    NEED(netio_multicast_leave(r, &zoned, far, NULL) == NETIO_ENOENT);
    netio_close(&r);
    netio_close(&s);
    netio_close(&second);
    return 0;
}

static int vanished_interface(void)
{
    netio_socket r, s;
    netio_addr a, g, unicast, source;
    netio_interface list[4];
    uint32_t far;
    int link = interface_open();
    if (link < 0) return CANNOT;
    far = netio_interface_index("far0");
    NEED(far > 1);
    NEED(netio_bind(&r, "0.0.0.0:0", NULL) == 0 && netio_local_addr(r, &a) == 0);
    NEED(netio_bind(&s, "0.0.0.0:0", NULL) == 0);
    NEED(text_parse(&g, "239.1.2.3:0", netio_addr_port(&a)));
    NEED(text_parse(&unicast, "127.0.0.1:0", netio_addr_port(&a)));
    NEED(text_parse(&source, "10.1.2.3:0", 0));
    NEED(netio_multicast_join(r, &g, 0, NULL) == NETIO_ENODEV); // no route to any group
    NEED(netio_multicast_join(r, &g, far, NULL) == 0);
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_IF, (int)far) == 0);
    close(link);
    NEED(netio_interface_index("far0") == 0);
    // On Linux 127.0.0.1 and, with IPv6, ::1 are what is left.
    NEED(netio_interfaces(list, 4) >= 1 && strcmp(list[0].name, "lo") == 0);
    NEED(!sends(s, &g, "nowhere"));
    NEED(netio_multicast_join(r, &g, far, &source) < 0);
    NEED(text_parse(&g, "239.1.2.4:0", netio_addr_port(&a)));
    NEED(netio_multicast_join(r, &g, far, NULL) == NETIO_ENODEV);
    NEED(netio_multicast_leave(r, &g, far, NULL) == NETIO_ENOENT);
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_IF, (int)far) == NETIO_ENODEV);
    NEED(text_parse(&g, "239.1.2.3:0", netio_addr_port(&a)));
    NEED(netio_multicast_leave(r, &g, far, NULL) == 0);
    NEED(netio_multicast_leave(r, &g, far, NULL) == NETIO_ENOENT);
    // The sockets are as good as before.
    NEED(sends(s, &unicast, "alive") && receives(r, "alive") == 1);
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_IF, 1) == 0);
    NEED(netio_multicast_join(r, &g, 1, NULL) == 0);
    NEED(sends(s, &g, "again") && receives(r, "again") == 1);
    netio_close(&r);
    netio_close(&s);
    return 0;
}

static bool interface_address(const char *name, const char *text)
{
    struct ifreq r;
    netio_addr a;
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    size_t len;
    const void *raw;
    char whole[32];
    bool ok;
    memset(&r, 0, sizeof r);
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    snprintf(whole, sizeof whole, "%s:0", text);
    if (s < 0 || netio_addr_parse(&a, whole, strlen(whole)) < 0) return false;
    raw = netio_addr_sockaddr(&a, &len);
    memcpy(&r.ifr_addr, raw, sizeof r.ifr_addr);
    ok = ioctl(s, SIOCSIFADDR, &r) == 0;
    close(s);
    return ok;
}

// The loopback device gives back all that is sent on it: another one has to show the loop.
static int loop_off(void)
{
    netio_socket r, s;
    netio_addr a, g;
    uint32_t far;
    int link = interface_open();
    if (link < 0) return CANNOT;
    far = netio_interface_index("far0");
    NEED(netio_bind(&r, "0.0.0.0:0", NULL) == 0 && netio_local_addr(r, &a) == 0);
    NEED(interface_address("far0", "10.77.0.1"));
    NEED(netio_interface_index("10.77.0.1") == far);
    NEED(netio_bind(&s, "10.77.0.1:0", NULL) == 0);
    NEED(text_parse(&g, "239.1.2.3:0", netio_addr_port(&a)));
    NEED(netio_multicast_join(r, &g, far, NULL) == 0);
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_IF, (int)far) == 0);
    NEED(sends(s, &g, "on") && receives(r, "on") == 1);
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_LOOP, 0) == 0);
    NEED(sends(s, &g, "off") && receives(r, NULL) == 0);
    NEED(netio_set_option(s, NETIO_OPT_MULTICAST_LOOP, 1) == 0);
    NEED(sends(s, &g, "on") && receives(r, "on") == 1);
    close(link);
    netio_close(&r);
    netio_close(&s);
    return 0;
}
#else
static int ipv6_groups(void) { return CANNOT; }
static int vanished_interface(void) { return CANNOT; }
static int loop_off(void) { return CANNOT; }
#endif

static void in_network(int (*run)(void))
{
    int code;
    if (test_under("qemu") || test_under("valgrind")) SKIP("unshare is not for emulators");
    code = in_own_network(run);
    if (code == CANNOT) SKIP("needs a network of its own with an interface: Linux, root, and TUN");
    CHECK_EQ(0, code);
}

TEST(multicast, ipv6_groups_by_number_and_zone_and_source) { in_network(ipv6_groups); }

TEST(multicast, an_interface_that_vanished_is_enodev_and_its_groups_can_be_left)
{
    in_network(vanished_interface);
}

TEST(multicast, loop_off_on_a_real_interface) { in_network(loop_off); }

//================================================================================================

// clang-format off
TEST_MAIN("multicast",
    T(multicast, a_joined_group_is_heard_until_it_is_left),
    T(multicast, the_interface_goes_by_number_name_and_address),
    T(multicast, joining_twice_is_eexist_and_leaving_without_it_enoent),
    T(multicast, what_is_no_group_is_einval),
    T(multicast, families_that_differ_are_einval),
    T(multicast, other_sockets_are_refused),
    T(multicast, an_unknown_interface_is_enodev),
    T(multicast, too_many_groups_are_named_and_the_others_stay),
    T(multicast, several_groups_on_one_socket_and_the_destination_tells_which),
    T(multicast, closing_ends_the_membership),
    T(multicast, from_one_source_alone),
    T(multicast, several_sources_of_one_group),
    T(multicast, a_source_on_an_unknown_interface_is_enodev),
    T(multicast, subscribers_on_one_port_all_get_everything),
    T(multicast, subscribers_in_two_processes_both_get_everything),
    T(multicast, groups_that_others_joined_are_not_heard),
    T(multicast, hops_are_one_unless_set_and_loop_is_on),
    T(multicast, the_hops_that_were_set_arrive),
    T(multicast, with_loop_off_there_is_no_copy_for_this_machine),
    T(multicast, the_way_out_is_chosen_by_number),
    T(multicast, a_dual_stack_socket_sends_and_hears_ipv4_groups),
    T(multicast, a_batch_goes_to_groups_by_its_own_interface),
    T(multicast, ipv6_groups_by_number_and_zone_and_source),
    T(multicast, an_interface_that_vanished_is_enodev_and_its_groups_can_be_left),
    T(multicast, loop_off_on_a_real_interface))
