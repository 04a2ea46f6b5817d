// Batches of datagrams: many in one call, and what comes along with each: where it was sent to, by
// which interface, hops, traffic class, time, segments; what is cut, refused, full, or too late.
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
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#endif

//================================================================================================
// The system, where the public calls have no words for it
//================================================================================================

#ifdef __linux__
static const bool on_linux = true; // true sizes, 127/8 whole, segments, the drop counter
#else
static const bool on_linux = false;
#endif

#ifdef _WIN32
static uint64_t wall_ns(void)
{
    FILETIME t;
    GetSystemTimeAsFileTime(&t);
    return ((((uint64_t)t.dwHighDateTime << 32) | t.dwLowDateTime) - 116444736000000000u) * 100u;
}
#else
static uint64_t wall_ns(void)
{
    struct timeval tv;
    gettimeofday(&tv, NULL);
    return (uint64_t)tv.tv_sec * 1000000000u + (uint64_t)tv.tv_usec * 1000u;
}
#endif

// In a child process: what fails is printed, and ends the child's part.
#define NEED(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            printf("    %s:%d: %s\n", __FILE__, __LINE__, #cond);                                  \
            fflush(stdout);                                                                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

enum { CANNOT = 77 };

#ifdef __linux__
// Run a function in a child whose network is its own: "lo", with `mtu`. CANNOT: no right to.
static int in_own_network(int (*run)(void), int mtu)
{
    int status = 0;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        struct ifreq lo;
        int s;
        if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) _exit(CANNOT);
        s = socket(AF_INET, SOCK_DGRAM, 0);
        memset(&lo, 0, sizeof lo);
        memcpy(lo.ifr_name, "lo", 3);
        lo.ifr_mtu = mtu;
        if (s < 0 || ioctl(s, SIOCSIFMTU, &lo) != 0) _exit(CANNOT);
        lo.ifr_flags = IFF_UP;
        if (ioctl(s, SIOCSIFFLAGS, &lo) != 0) _exit(CANNOT);
        close(s);
        _exit(run());
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

// Which system calls a child makes that runs `run` between two calls of getppid. By
// PTRACE_GET_SYSCALL_INFO, Linux 5.3 and newer, as a number for older headers.
typedef struct traced {
    int sends, receives, others;
} traced;

static long trace_number(pid_t pid) // -1: not at the entry of a call
{
    struct {
        uint8_t op, pad[3];
        uint32_t arch;
        uint64_t ip, sp, number, args[6], rest[2];
    } info;
    memset(&info, 0, sizeof info);
    // The request's type is an enum in glibc and an int in musl.
    return ptrace(0x420e, pid, (void *)sizeof info, &info) > 0 && info.op == 1 ? (long)info.number
                                                                               : -1;
}

static bool trace_supported(pid_t pid)
{
    char room[88];
    return ptrace(0x420e, pid, (void *)sizeof room, room) > 0;
}

static int trace(void (*run)(void), traced *out)
{
    int status, inside = 0;
    pid_t pid;
    memset(out, 0, sizeof *out);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(CANNOT);
        raise(SIGSTOP);
        syscall(SYS_getppid);
        run();
        syscall(SYS_getppid);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1;
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_TRACESYSGOOD);
    while (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid &&
           !WIFEXITED(status) && !WIFSIGNALED(status)) {
        long number;
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
        if (!trace_supported(pid)) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return CANNOT;
        }
        number = trace_number(pid);
        if (number == SYS_getppid) inside++;
        else if (number < 0 || inside != 1) continue;
        else if (number == SYS_sendmmsg) out->sends++;
        else if (number == SYS_recvmmsg) out->receives++;
        else out->others++;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#else
typedef struct traced {
    int sends, receives, others;
} traced;

static int in_own_network(int (*run)(void), int mtu)
{
    (void)run, (void)mtu;
    return CANNOT;
}

static int trace(void (*run)(void), traced *out)
{
    (void)run;
    memset(out, 0, sizeof *out);
    return CANNOT;
}
#endif

//================================================================================================
// Helpers
//================================================================================================

enum { MANY = 200, EACH = 2048 };

static netio_datagram in[MANY], out[MANY];
static unsigned char in_bytes[MANY][EACH], out_bytes[MANY][EACH];
static unsigned char big_in[1 << 17], big_out[1 << 17];

// Rooms of `cap` bytes, with rubbish in every field that a receive has to write.
static void rooms(size_t count, size_t cap)
{
    memset(in_bytes, 0xEE, sizeof in_bytes);
    for (size_t i = 0; i < count; i++) {
        memset(&in[i], 0xDD, sizeof in[i]);
        in[i].truncated = true;
        in[i].data = in_bytes[i];
        in[i].cap = cap;
    }
}

// Datagrams to `to` (NULL: the connected peer), number i of `len` bytes that only it has.
static void letters(size_t count, size_t len, const netio_addr *to)
{
    for (size_t i = 0; i < count; i++) {
        memset(&out[i], 0, sizeof out[i]);
        test_fill(out_bytes[i], len, (uint32_t)i + 1);
        out[i].data = out_bytes[i];
        out[i].len = len;
        if (to) out[i].peer = *to;
    }
}

static void check_letter(const netio_datagram *m, size_t number, size_t len)
{
    unsigned char want[EACH];
    test_fill(want, len, (uint32_t)number + 1);
    CHECK_EQ(len, m->len);
    CHECK_EQ(len, m->full);
    CHECK(!m->truncated);
    CHECK_MEM(want, m->data, len);
}

// Receives until there are `count` of them or a second passes without one; returns how many.
static size_t take(netio_socket s, size_t count)
{
    size_t n = 0;
    while (n < count) {
        ptrdiff_t r = netio_recv_batch(s, in + n, count - n, 1000);
        if (r == NETIO_ETIMEDOUT) break;
        CHECK(r > 0 && (size_t)r <= count - n);
        n += (size_t)r;
    }
    return n;
}

static void nothing_more(netio_socket s)
{
    netio_datagram one;
    char c;
    memset(&one, 0, sizeof one);
    one.data = &c;
    one.cap = 1;
    CHECK_ERR(NETIO_EAGAIN, netio_recv_batch(s, &one, 1, 0));
}

// A receiver on `address` with room for bursts, and its address.
static void receiver(netio_socket *s, netio_addr *a, const char *address)
{
    CHECK_OK(netio_bind(s, address, NULL));
    CHECK_OK(netio_set_option(*s, NETIO_OPT_RCVBUF, 1 << 20));
    CHECK_OK(netio_local_addr(*s, a));
}

static void two(netio_socket *from, netio_socket *to, netio_addr *a)
{
    CHECK_OK(netio_bind(from, "127.0.0.1:0", NULL));
    receiver(to, a, "127.0.0.1:0");
}

static void close_two(netio_socket *a, netio_socket *b)
{
    CHECK_OK(netio_close(a));
    CHECK_OK(netio_close(b));
}

static void host(netio_addr *a, const char *text, uint16_t port)
{
    char whole[NETIO_ADDR_TEXT];
    snprintf(whole, sizeof whole, strchr(text, ':') ? "[%s]:%u" : "%s:%u", text, (unsigned)port);
    CHECK_OK(netio_addr_parse(a, whole, strlen(whole)));
}

static bool has_ipv6(void)
{
    netio_socket s;
    if (netio_bind(&s, "[::1]:0", NULL) < 0) return false;
    netio_close(&s);
    return true;
}

static uint32_t loopback_index(void) { return netio_interface_index("127.0.0.1"); }

static bool turn_on(netio_socket s, int option)
{
    bool supported = netio_option_supported(option);
    int err = netio_set_option(s, option, 1);
    if (test_under("qemu")) return supported && err == 0; // it may take what it cannot read, too
    if (!supported && test_under("wine")) CHECK(err < 0); // EINVAL for what it does not know
    else CHECK_ERR(supported ? 0 : NETIO_ENOTSUP, err);
    return supported;
}

// qemu-user hands numbers of interfaces on in the byte order of the machine that it runs on.
static bool index_is(uint32_t want, uint32_t got) { return want == got || test_under("qemu"); }

//================================================================================================
// Many at once
//================================================================================================

TEST(batch, sixty_four_go_in_one_call_and_come_in_order)
{
    netio_socket s, r;
    netio_addr to, from;
    bool whole = false;
    two(&s, &r, &to);
    CHECK_OK(netio_local_addr(s, &from));
    // All 64 lie there when the send is over, unless the kernel was called away: then once more.
    for (int i = 0; i < 20 && !whole; i++) {
        ptrdiff_t n;
        rooms(64, EACH);
        letters(64, 100, &to);
        CHECK_ERR(64, netio_send_batch(s, out, 64, 1000));
        n = netio_recv_batch(r, in, 64, 5000);
        CHECK_BETWEEN(1, 64, n);
        whole = n == 64;
        for (size_t k = (size_t)n; k < 64;) {
            n = netio_recv_batch(r, in + k, 64 - k, 5000);
            CHECK(n > 0);
            k += (size_t)n;
        }
        for (size_t k = 0; k < 64; k++) {
            check_letter(&in[k], k, 100);
            CHECK(netio_addr_equal(&from, &in[k].peer));
        }
        nothing_more(r);
    }
    CHECK(whole);
    close_two(&s, &r);
}

static netio_socket traced_sender, traced_receiver;

static void traced_exchange(void)
{
    if (netio_send_batch(traced_sender, out, 64, 1000) != 64) _exit(1);
    if (netio_recv_batch(traced_receiver, in, 64, 1000) != 64) _exit(2);
}

TEST(batch, sixty_four_are_one_system_call_on_linux)
{
#ifdef __linux__
    netio_addr to;
    traced calls = {0, 0, 0};
    int code = -1;
    if (test_under("qemu") || test_under("valgrind")) SKIP("an emulator cannot be traced");
    two(&traced_sender, &traced_receiver, &to);
    for (int i = 0; i < 20 && code != 0 && code != CANNOT; i++) {
        rooms(64, EACH);
        letters(64, 100, &to);
        code = trace(traced_exchange, &calls);
    }
    close_two(&traced_sender, &traced_receiver);
    if (code == CANNOT) SKIP("this process may not trace its child, or the kernel is too old");
    CHECK_EQ(0, code);
    CHECK_EQ(1, calls.sends);
    CHECK_EQ(1, calls.receives);
    CHECK_EQ(0, calls.others);
#else
    (void)trace, (void)traced_exchange;
    SKIP("only Linux has such a call");
#endif
}

TEST(batch, more_than_a_call_takes_are_several)
{
    netio_socket s, r;
    netio_addr to;
    two(&s, &r, &to);
    rooms(MANY, EACH);
    letters(150, 30, &to);
    CHECK_ERR(150, netio_send_batch(s, out, 150, 5000));
    CHECK_EQ(150, take(r, 150));
    for (size_t i = 0; i < 150; i++) check_letter(&in[i], i, 30);
    // 64 and 128 end exactly where a call does: the next must not wait for more.
    for (size_t count = 64; count <= 128; count += 64) {
        uint64_t before = test_ms();
        rooms(MANY, EACH);
        letters(count, 30, &to);
        CHECK_ERR(count, netio_send_batch(s, out, count, 5000));
        CHECK_EQ(count, take(r, count));
        for (size_t i = 0; i < count; i++) check_letter(&in[i], i, 30);
        CHECK_BETWEEN(0, 900, test_ms() - before);
    }
    nothing_more(r);
    close_two(&s, &r);
}

TEST(batch, what_is_there_is_taken_and_the_rest_stays_untouched)
{
    netio_socket s, r;
    netio_addr to;
    ptrdiff_t n;
    two(&s, &r, &to);
    rooms(10, EACH);
    letters(3, 50, &to);
    CHECK_ERR(3, netio_send_batch(s, out, 3, 1000));
    for (size_t k = 0; k < 3; k += (size_t)n) {
        n = netio_recv_batch(r, in + k, 10 - k, 5000); // no waiting for a tenth
        CHECK_BETWEEN(1, 3, n);
    }
    for (size_t i = 0; i < 3; i++) check_letter(&in[i], i, 50);
    for (size_t i = 3; i < 10; i++) {
        CHECK(in[i].data == in_bytes[i]);
        CHECK_EQ(EACH, in[i].cap);
        CHECK_EQ(0xEE, in_bytes[i][0]);
    }
    CHECK_EQ(0xEE, in_bytes[2][50]); // nor what lies behind a datagram
    close_two(&s, &r);
}

TEST(batch, one_that_cannot_go_ends_a_batch_and_is_named_next)
{
    netio_socket s, r;
    netio_addr to;
    two(&s, &r, &to);
    rooms(10, EACH);
    letters(5, 50, &to);
    out[2].data = big_out;
    out[2].len = 70000;
    CHECK_ERR(2, netio_send_batch(s, out, 5, 1000));
    CHECK_ERR(NETIO_EMSGSIZE, netio_send_batch(s, out + 2, 3, 1000));
    CHECK_ERR(2, netio_send_batch(s, out + 3, 2, 1000));
    CHECK_EQ(4, take(r, 4));
    check_letter(&in[0], 0, 50);
    check_letter(&in[1], 1, 50);
    check_letter(&in[2], 3, 50);
    check_letter(&in[3], 4, 50);
    nothing_more(r);
    close_two(&s, &r);
}

TEST(batch, different_peers_in_one_call)
{
    netio_socket s, r[4];
    netio_addr to[4], from;
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(s, &from));
    for (int i = 0; i < 4; i++) receiver(&r[i], &to[i], "127.0.0.1:0");
    letters(8, 20, NULL);
    for (int i = 0; i < 8; i++) out[i].peer = to[i % 4];
    CHECK_ERR(8, netio_send_batch(s, out, 8, 1000));
    for (size_t i = 0; i < 4; i++) {
        rooms(4, EACH);
        CHECK_EQ(2, take(r[i], 2));
        check_letter(&in[0], i, 20);
        check_letter(&in[1], i + 4, 20);
        CHECK(netio_addr_equal(&from, &in[0].peer));
        nothing_more(r[i]);
        CHECK_OK(netio_close(&r[i]));
    }
    CHECK_OK(netio_close(&s));
}

TEST(batch, a_full_peer_takes_a_part_and_the_rest_in_time)
{
    netio_socket pair[2];
    size_t sent, got = 0;
    ptrdiff_t n;
    // A Unix datagram socket has a queue of few; UDP drops instead.
    if (netio_pair(pair, NETIO_DGRAM) < 0) SKIP("no pairs of datagram sockets here");
    if (!on_linux) {
        close_two(&pair[0], &pair[1]);
        SKIP("here the pair is UDP, which drops and never waits, or its queue is long");
    }
    letters(MANY, 500, NULL);
    n = netio_send_batch(pair[0], out, MANY, 0);
    CHECK_BETWEEN(1, MANY - 1, n);
    sent = (size_t)n;
    CHECK_ERR(NETIO_EAGAIN, netio_send_batch(pair[0], out + sent, MANY - sent, 0));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_send_batch(pair[0], out + sent, MANY - sent, 20));
    rooms(MANY, EACH);
    while (got < MANY) {
        n = netio_recv_batch(pair[1], in + got, MANY - got, 1000);
        CHECK(n > 0);
        got += (size_t)n;
        if (sent == MANY) continue;
        n = netio_send_batch(pair[0], out + sent, MANY - sent, 0);
        CHECK(n > 0);
        sent += (size_t)n;
    }
    CHECK_EQ(MANY, sent);
    for (size_t i = 0; i < MANY; i++) check_letter(&in[i], i, 500);
    close_two(&pair[0], &pair[1]);
}

static void drain(void *arg)
{
    const netio_socket *s = (const netio_socket *)arg;
    char buf[EACH];
    for (int i = 0; i < MANY; i++)
        if (netio_recv(*s, buf, sizeof buf, 5000) < 0) return;
}

TEST(batch, a_batch_waits_for_room_within_its_time)
{
    netio_socket pair[2];
    test_thread t;
    if (netio_pair(pair, NETIO_DGRAM) < 0) SKIP("no pairs of datagram sockets here");
    letters(MANY, 500, NULL);
    test_thread_start(&t, drain, &pair[1]);
    CHECK_ERR(MANY, netio_send_batch(pair[0], out, MANY, 10000));
    test_thread_join(&t);
    close_two(&pair[0], &pair[1]);
}

//================================================================================================
// Sizes
//================================================================================================

TEST(batch, cut_ones_give_their_bytes_and_harm_no_neighbour)
{
    static const size_t caps[] = {100, 99, 1, 101, 50};
    netio_socket s, r;
    netio_addr to;
    two(&s, &r, &to);
    rooms(5, EACH);
    for (int i = 0; i < 5; i++) in[i].cap = caps[i];
    letters(5, 100, &to);
    CHECK_ERR(5, netio_send_batch(s, out, 5, 1000));
    CHECK_EQ(5, take(r, 5));
    for (int i = 0; i < 5; i++) {
        size_t want = caps[i] < 100 ? caps[i] : 100;
        CHECK_EQ(want, in[i].len);
        CHECK_EQ(caps[i] < 100, in[i].truncated);
        if (caps[i] >= 100 || on_linux) CHECK_EQ(100, in[i].full);
        else CHECK_EQ(caps[i] + 1, in[i].full);
        CHECK_MEM(out_bytes[i], in_bytes[i], want);
        CHECK_EQ(0xEE, in_bytes[i][want]);
        CHECK(in[i].peer.len > 0);
    }
    close_two(&s, &r);
}

TEST(batch, empty_ones_and_empty_rooms)
{
    netio_socket s, r;
    netio_addr to;
    two(&s, &r, &to);
    rooms(6, EACH);
    letters(6, 10, &to);
    out[0].len = 0;
    out[0].data = NULL;
    out[2].len = 0;
    out[4].len = 0;
    in[3].cap = 0; // meets a full one
    in[3].data = NULL;
    in[4].cap = 0; // meets an empty one
    in[4].data = NULL;
    CHECK_ERR(6, netio_send_batch(s, out, 6, 1000));
    CHECK_EQ(6, take(r, 6));
    for (int i = 0; i < 6; i++) CHECK(in[i].peer.len > 0);
    check_letter(&in[0], 0, 0);
    check_letter(&in[1], 1, 10);
    check_letter(&in[2], 2, 0);
    CHECK_EQ(0, in[3].len);
    CHECK_EQ(on_linux ? 10 : 1, in[3].full);
    CHECK(in[3].truncated);
    CHECK_EQ(0, in[4].len);
    CHECK_EQ(0, in[4].full);
    CHECK(!in[4].truncated);
    check_letter(&in[5], 5, 10);
    nothing_more(r);
    close_two(&s, &r);
}

TEST(batch, the_largest_datagram_fits_and_one_byte_more_does_not_go)
{
    netio_socket s, r;
    netio_addr to;
    two(&s, &r, &to);
    CHECK_OK(netio_set_option(s, NETIO_OPT_SNDBUF, 1 << 18));
    letters(1, 10, &to);
    test_fill(big_out, 65508, 9);
    out[0].data = big_out;
    out[0].len = 65507;
    CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
    out[0].len = 65508;
    CHECK_ERR(NETIO_EMSGSIZE, netio_send_batch(s, out, 1, 1000));
    rooms(1, EACH);
    in[0].data = big_in;
    in[0].cap = sizeof big_in;
    CHECK_EQ(1, take(r, 1));
    CHECK_EQ(65507, in[0].len);
    CHECK_MEM(big_out, big_in, 65507);
    nothing_more(r);
    close_two(&s, &r);
}

//================================================================================================
// Where it was sent to, and answering from there
//================================================================================================

static const char *text_of(const netio_addr *a)
{
    static char text[4][NETIO_ADDR_TEXT];
    static unsigned next;
    char *t = text[next++ % 4];
    CHECK(netio_addr_format_host(a, t, NETIO_ADDR_TEXT) > 0);
    return t;
}

TEST(batch, nothing_is_told_that_was_not_asked_for)
{
    netio_socket s, r;
    netio_addr to;
    two(&s, &r, &to);
    rooms(1, EACH);
    letters(1, 10, &to);
    CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
    CHECK_EQ(1, take(r, 1));
    CHECK_EQ(0, in[0].local.len);
    CHECK_EQ(0, netio_addr_family(&in[0].local));
    CHECK_EQ(0, in[0].ifindex);
    CHECK_EQ(0, in[0].segment);
    CHECK_EQ(0, in[0].time_ns);
    CHECK_EQ(0, in[0].ttl);
    CHECK_EQ(0, in[0].tos);
    CHECK_EQ(0, in[0].peer.dual);
    close_two(&s, &r);
}

// One datagram to each of `names` on the port of `server`; the answers come from there.
static void ask_each(netio_socket server, const char *const *names, size_t count, const char *from)
{
    netio_addr any, to;
    netio_socket client;
    char buf[16];
    CHECK_OK(netio_local_addr(server, &any));
    CHECK_OK(netio_bind(&client, from, NULL));
    for (size_t i = 0; i < count; i++) {
        host(&to, names[i], netio_addr_port(&any));
        CHECK_ERR(3, netio_sendto(client, "who", 3, &to, 1000));
        rooms(1, EACH);
        CHECK_EQ(1, take(server, 1));
        CHECK_EQ(3, in[0].len);
        CHECK_STR(names[i], text_of(&in[0].local));
        CHECK_EQ(0, netio_addr_port(&in[0].local));
        CHECK(index_is(loopback_index(), in[0].ifindex));
        CHECK_ERR(1, netio_send_batch(server, in, 1, 1000)); // as it is
        memset(&any, 0, sizeof any);
        CHECK_ERR(3, netio_recvfrom(client, buf, sizeof buf, &any, 5000));
        CHECK(netio_addr_equal(&to, &any));
        // Without the interface too, and without the source the system answers as it likes.
        in[0].ifindex = 0;
        CHECK_ERR(1, netio_send_batch(server, in, 1, 1000));
        CHECK_ERR(3, netio_recvfrom(client, buf, sizeof buf, &any, 5000));
        CHECK(netio_addr_equal(&to, &any));
        CHECK_OK(netio_local_addr(server, &any));
    }
    CHECK_OK(netio_close(&client));
}

TEST(batch, an_answer_comes_from_the_address_that_was_asked)
{
    static const char *const names[] = {"127.0.0.1", "127.0.0.2", "127.9.8.7"};
    netio_socket server;
    CHECK_OK(netio_bind(&server, "0.0.0.0:0", NULL));
    if (!turn_on(server, NETIO_OPT_RECV_LOCAL)) {
        CHECK_OK(netio_close(&server));
        SKIP("this system does not tell, and netio says so");
    }
    ask_each(server, names, on_linux ? 3 : 1, "127.0.0.1:0");
    CHECK_OK(netio_close(&server));
}

TEST(batch, on_ipv6_too)
{
    static const char *const names[] = {"::1"};
    netio_socket server;
    if (!has_ipv6()) SKIP("no IPv6 here");
    if (test_under("qemu")) SKIP("qemu-user does not translate what IPv6 sockets tell");
    CHECK_OK(netio_bind(&server, "[::]:0", NULL));
    if (!turn_on(server, NETIO_OPT_RECV_LOCAL)) {
        CHECK_OK(netio_close(&server));
        SKIP("this system does not tell, and netio says so");
    }
    ask_each(server, names, 1, "[::1]:0");
    CHECK_OK(netio_close(&server));
}

TEST(batch, a_dual_stack_socket_tells_and_answers_ipv4_peers)
{
    static const char *const names[] = {"127.0.0.1", "127.0.0.2"};
    static const char *const six[] = {"::1"};
    netio_socket server;
    netio_addr a;
    if (test_under("qemu")) SKIP("qemu-user does not translate what IPv6 sockets tell");
    CHECK_OK(netio_bind(&server, ":0", NULL));
    CHECK_OK(netio_local_addr(server, &a));
    if (netio_addr_family(&a) != NETIO_IPV6 || !turn_on(server, NETIO_OPT_RECV_LOCAL)) {
        CHECK_OK(netio_close(&server));
        SKIP("no dual-stack sockets here, or they do not tell, and netio says so");
    }
    ask_each(server, names, on_linux ? 2 : 1, "127.0.0.1:0");
    CHECK_EQ(NETIO_IPV4, netio_addr_family(&in[0].peer)); // not as ::ffff:127.0.0.1
    ask_each(server, six, 1, "[::1]:0");
    ask_each(server, names, on_linux ? 2 : 1, "127.0.0.1:0"); // one does not spoil the other
    CHECK_OK(netio_close(&server));
}

TEST(batch, a_source_that_is_not_ours_is_refused_and_no_source_is_left_to_the_os)
{
    static const char *const nobodys[] = {"239.1.2.3", "255.255.255.255", "0.0.0.0"};
    netio_socket s, r;
    netio_addr to;
    ptrdiff_t n;
    CHECK_OK(netio_bind(&s, "0.0.0.0:0", NULL));
    receiver(&r, &to, "127.0.0.1:0");
    if (!netio_option_supported(NETIO_OPT_RECV_LOCAL)) {
        close_two(&s, &r);
        SKIP("no way to choose a source here");
    }
    for (int i = 0; i < 3; i++) {
        letters(1, 10, &to);
        host(&out[0].local, nobodys[i], 0);
        CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
        rooms(1, EACH);
        CHECK_EQ(1, take(r, 1));
        CHECK_STR("127.0.0.1", text_of(&in[0].peer));
    }
    letters(2, 10, &to);
    host(&out[0].local, "203.0.113.7", 0); // TEST-NET-3 of RFC 5737: not this machine
    n = netio_send_batch(s, out, 2, 1000);
    if (!test_under("wine")) { // which does not look at it
        CHECK(n < 0);
        nothing_more(r);
    }
    close_two(&s, &r);
}

TEST(batch, a_chosen_way_out_is_used_and_an_unknown_one_is_enodev)
{
    netio_socket s, r;
    netio_addr to;
    if (test_under("qemu")) SKIP("qemu-user does not translate the number");
    two(&s, &r, &to);
    if (!netio_option_supported(NETIO_OPT_RECV_LOCAL)) {
        close_two(&s, &r);
        SKIP("no way to choose one here");
    }
    letters(1, 10, &to);
    out[0].ifindex = loopback_index();
    CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
    rooms(1, EACH);
    CHECK_EQ(1, take(r, 1));
    check_letter(&in[0], 0, 10);
    out[0].ifindex = 999999;
    if (!test_under("wine")) { // which does not look at it
        CHECK(netio_send_batch(s, out, 1, 1000) < 0);
        if (on_linux) CHECK_ERR(NETIO_ENODEV, netio_send_batch(s, out, 1, 1000));
        nothing_more(r);
    }
    close_two(&s, &r);
}

TEST(batch, a_source_in_mapped_form_is_used)
{
    static const unsigned char mapped[16] = {0, 0, 0,    0,    0,   0, 0, 0,
                                             0, 0, 0xFF, 0xFF, 127, 0, 0, 2};
    netio_socket s[2], r;
    netio_addr to;
    if (!on_linux) SKIP("127.0.0.2 may not be of this machine, or not be looked at");
    receiver(&r, &to, "127.0.0.1:0");
    CHECK_OK(netio_bind(&s[0], "0.0.0.0:0", NULL));
    CHECK_OK(netio_bind(&s[1], ":0", NULL));
    for (int i = 0; i < 2; i++) {
        letters(1, 10, &to);
        CHECK_OK(netio_addr_from_ip(&out[0].local, mapped, 16, 0));
        CHECK_ERR(1, netio_send_batch(s[i], out, 1, 1000));
        rooms(1, EACH);
        CHECK_EQ(1, take(r, 1));
        CHECK_STR("127.0.0.2", text_of(&in[0].peer));
        CHECK_OK(netio_close(&s[i]));
    }
    CHECK_OK(netio_close(&r));
}

TEST(batch, a_source_of_the_other_family_is_refused)
{
    netio_socket s[2], r[2];
    netio_addr to[2];
    if (!has_ipv6()) SKIP("no IPv6 here");
    receiver(&r[0], &to[0], "127.0.0.1:0");
    receiver(&r[1], &to[1], "[::1]:0");
    CHECK_OK(netio_bind(&s[0], "0.0.0.0:0", NULL));
    CHECK_OK(netio_bind(&s[1], ":0", NULL));
    letters(1, 10, &to[0]);
    host(&out[0].local, "::1", 0);
    CHECK_ERR(NETIO_EINVAL, netio_send_batch(s[0], out, 1, 1000));
    CHECK_ERR(NETIO_EINVAL, netio_send_batch(s[1], out, 1, 1000));
    nothing_more(r[0]);
    letters(1, 10, &to[1]);
    host(&out[0].local, "127.0.0.1", 0);
    CHECK_ERR(NETIO_EINVAL, netio_send_batch(s[1], out, 1, 1000));
    nothing_more(r[1]);
    close_two(&s[0], &s[1]);
    close_two(&r[0], &r[1]);
}

TEST(batch, a_way_out_counts_on_connected_sockets_too)
{
    static const char *const addresses[] = {"127.0.0.1:0", "[::1]:0"};
    if (!on_linux || test_under("qemu")) SKIP("the number is not looked at here");
    for (int i = 0; i < (has_ipv6() ? 2 : 1); i++) {
        netio_socket s, r;
        netio_socket_opts opts = {0};
        netio_addr to;
        char text[NETIO_ADDR_TEXT];
        opts.type = NETIO_DGRAM;
        receiver(&r, &to, addresses[i]);
        CHECK(netio_addr_format(&to, text, sizeof text) > 0);
        CHECK_OK(netio_connect(&s, text, &opts, 1000));
        letters(1, 10, NULL);
        out[0].ifindex = loopback_index();
        CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
        rooms(1, EACH);
        CHECK_EQ(1, take(r, 1));
        check_letter(&in[0], 0, 10);
        out[0].ifindex = 999999;
        CHECK(netio_send_batch(s, out, 1, 1000) < 0);
        nothing_more(r);
        close_two(&s, &r);
    }
}

TEST(batch, peers_in_other_forms_are_reached_as_by_sendto)
{
    static const unsigned char mapped[16] = {0, 0, 0,    0,    0,   0, 0, 0,
                                             0, 0, 0xFF, 0xFF, 127, 0, 0, 1};
    netio_socket four, dual, r;
    netio_addr to;
    CHECK_OK(netio_bind(&four, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&dual, ":0", NULL));
    receiver(&r, &to, "127.0.0.1:0");
    for (int i = 0; i < 6; i++) {
        netio_socket s = i % 2 ? dual : four;
        letters(1, 10, &to);
        if (i / 2 == 1)
            CHECK_OK(netio_addr_from_ip(&out[0].peer, mapped, 16, netio_addr_port(&to)));
        if (i / 2 == 2) CHECK_OK(netio_addr_any(&out[0].peer, NETIO_IPV4, netio_addr_port(&to)));
        CHECK_ERR(10, netio_sendto(s, out_bytes[0], 10, &out[0].peer, 1000));
        CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
        rooms(2, EACH);
        CHECK_EQ(2, take(r, 2));
        check_letter(&in[0], 0, 10);
        check_letter(&in[1], 0, 10);
        CHECK(netio_addr_equal(&in[0].peer, &in[1].peer));
    }
    CHECK_OK(netio_close(&four));
    close_two(&dual, &r);
}

TEST(batch, an_echo_of_batches_needs_no_change)
{
    netio_socket server, client;
    netio_addr to;
    static const int options[] = {NETIO_OPT_RECV_LOCAL, NETIO_OPT_RECV_TTL, NETIO_OPT_RECV_TOS,
                                  NETIO_OPT_RECV_TIME};
    receiver(&server, &to, "0.0.0.0:0");
    host(&to, "127.0.0.1", netio_addr_port(&to));
    for (int i = 0; i < 4; i++) turn_on(server, options[i]);
    CHECK_OK(netio_bind(&client, "127.0.0.1:0", NULL));
    CHECK_OK(netio_set_option(client, NETIO_OPT_RCVBUF, 1 << 20));
    for (int round = 0; round < 3; round++) {
        letters(64, 700, &to);
        CHECK_ERR(64, netio_send_batch(client, out, 64, 1000));
        rooms(64, EACH);
        CHECK_EQ(64, take(server, 64));
        CHECK_ERR(64, netio_send_batch(server, in, 64, 1000));
        rooms(64, EACH);
        CHECK_EQ(64, take(client, 64));
        for (size_t i = 0; i < 64; i++) {
            check_letter(&in[i], i, 700);
            CHECK(netio_addr_equal(&to, &in[i].peer));
        }
    }
    close_two(&server, &client);
}

//================================================================================================
// Hops, traffic class, time
//================================================================================================

static void hops_and_class(const char *address, const char *target)
{
    static const int ttls[] = {1, 64, 255};
    static const int classes[] = {0, 0xB8, 0x10, 0x02, 0x03, 0xFF}; // the last two bits are ECN's
    netio_socket s, r;
    netio_addr to;
    bool ttl, tos;
    receiver(&r, &to, address);
    host(&to, target, netio_addr_port(&to));
    CHECK_OK(netio_bind(&s, strchr(target, ':') ? "[::1]:0" : "127.0.0.1:0", NULL));
    ttl = turn_on(r, NETIO_OPT_RECV_TTL);
    tos = turn_on(r, NETIO_OPT_RECV_TOS);
    for (int i = 0; i < 3 && ttl; i++) {
        CHECK_OK(netio_set_option(s, NETIO_OPT_TTL, ttls[i]));
        letters(1, 10, &to);
        CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
        rooms(1, EACH);
        CHECK_EQ(1, take(r, 1));
        CHECK_EQ(ttls[i], in[0].ttl);
    }
    for (int i = 0; i < 6 && tos && netio_option_supported(NETIO_OPT_TOS); i++) {
        CHECK_OK(netio_set_option(s, NETIO_OPT_TOS, classes[i]));
        letters(1, 10, &to);
        CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
        rooms(1, EACH);
        CHECK_EQ(1, take(r, 1));
        CHECK_EQ(classes[i], in[0].tos);
    }
    if (ttl) { // and off again
        CHECK_OK(netio_set_option(r, NETIO_OPT_RECV_TTL, 0));
        if (tos) CHECK_OK(netio_set_option(r, NETIO_OPT_RECV_TOS, 0));
        letters(1, 10, &to);
        CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
        rooms(1, EACH);
        CHECK_EQ(1, take(r, 1));
        CHECK_EQ(0, in[0].ttl);
        CHECK_EQ(0, in[0].tos);
    }
    close_two(&s, &r);
    if (!ttl && !tos) SKIP("this system tells neither, and netio says so");
}

TEST(batch, hops_and_traffic_class_of_ipv4) { hops_and_class("127.0.0.1:0", "127.0.0.1"); }

TEST(batch, hops_and_traffic_class_of_ipv6)
{
    if (!has_ipv6()) SKIP("no IPv6 here");
    if (test_under("qemu")) SKIP("qemu-user does not translate what IPv6 sockets tell");
    hops_and_class("[::1]:0", "::1");
}

TEST(batch, hops_and_traffic_class_of_ipv4_through_a_dual_stack_socket)
{
    if (!has_ipv6()) SKIP("no IPv6 here");
    if (test_under("qemu")) SKIP("qemu-user does not translate what IPv6 sockets tell");
    hops_and_class(":0", "127.0.0.1");
    hops_and_class(":0", "::1");
}

TEST(batch, arrival_times_are_on_the_wall_clock_and_in_order)
{
    netio_socket s, r;
    netio_addr to;
    uint64_t before, after;
    two(&s, &r, &to);
    if (!turn_on(r, NETIO_OPT_RECV_TIME)) {
        close_two(&s, &r);
        SKIP("this system does not tell, and netio says so");
    }
    // Linux switches the stamping on in the background; until then it tells the time of reception.
    rooms(1, EACH);
    letters(20, 10, &to);
    for (int i = 0; i < 100; i++) {
        CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
        before = wall_ns();
        test_sleep_ms(10);
        CHECK_EQ(1, take(r, 1));
        if (in[0].time_ns < before + 5000000u) break;
    }
    before = wall_ns();
    rooms(20, EACH);
    for (size_t i = 0; i < 20; i++) {
        CHECK_ERR(1, netio_send_batch(s, out + i, 1, 1000));
        if (i == 9) test_sleep_ms(30); // a gap that the times must show, however late they are read
    }
    test_sleep_ms(50);
    CHECK_EQ(20, take(r, 20));
    after = wall_ns();
    for (size_t i = 0; i < 20; i++) {
        // The clocks of the two sides may differ in what they round.
        CHECK(in[i].time_ns + 2000000u >= before);
        CHECK(in[i].time_ns <= after + 2000000u);
        if (i) CHECK(in[i].time_ns >= in[i - 1].time_ns);
    }
    CHECK(in[10].time_ns - in[9].time_ns >= 25000000u);
    if (on_linux) {
        uint64_t sum = 0; // nanoseconds, not seconds or microseconds with zeroes behind
        for (size_t i = 0; i < 20; i++) sum |= in[i].time_ns % 1000;
        CHECK(sum != 0);
    }
    close_two(&s, &r);
}

//================================================================================================
// Segments: several datagrams in one piece of memory
//================================================================================================

// What comes of `len` bytes in `big_out` cut into `segment`: the same bytes in pieces of that size.
static void check_pieces(netio_socket r, size_t len, size_t segment)
{
    size_t at = 0;
    while (at < len) {
        size_t want = len - at < segment ? len - at : segment;
        ptrdiff_t n = netio_recv(r, big_in, sizeof big_in, 2000);
        CHECK_ERR(want, n);
        CHECK_MEM(big_out + at, big_in, want);
        at += want;
    }
    CHECK_ERR(NETIO_EAGAIN, netio_recv(r, big_in, sizeof big_in, 0));
}

static void send_segments(netio_socket s, const netio_addr *to, size_t len, uint32_t segment)
{
    letters(1, 10, to);
    test_fill(big_out, len, (uint32_t)len);
    out[0].data = big_out;
    out[0].len = len;
    out[0].segment = segment;
    CHECK_ERR(1, netio_send_batch(s, out, 1, 5000));
}

TEST(batch, segments_are_cut_where_asked)
{
    // clang-format off
    static const struct { size_t len; uint32_t segment; } cuts[] = {
        {1000, 100}, {1001, 100}, {999, 100}, {100, 100}, {99, 100}, {101, 100}, {64, 1},
        {6400, 100}, {60000, 1200}, {5, 0}, {65507, 65506}, {1, 1}, {0, 100},
    };
    // clang-format on
    netio_socket s, r;
    netio_addr to;
    if (test_under("qemu")) SKIP("qemu-user does not translate it");
    two(&s, &r, &to);
    CHECK_OK(netio_set_option(s, NETIO_OPT_SNDBUF, 1 << 18));
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        size_t segment = cuts[i].segment ? cuts[i].segment : cuts[i].len;
        send_segments(s, &to, cuts[i].len, cuts[i].segment);
        if (cuts[i].len == 0) CHECK_ERR(0, netio_recv(r, big_in, sizeof big_in, 2000));
        check_pieces(r, cuts[i].len, segment);
    }
    close_two(&s, &r);
}

TEST(batch, segments_on_connected_sockets_and_with_a_source)
{
    netio_socket r, s;
    netio_socket_opts opts = {0};
    netio_addr to, local;
    char text[NETIO_ADDR_TEXT];
    if (test_under("qemu")) SKIP("qemu-user does not translate it");
    receiver(&r, &to, "127.0.0.1:0");
    CHECK(netio_addr_format(&to, text, sizeof text) > 0);
    opts.type = NETIO_DGRAM;
    CHECK_OK(netio_connect(&s, text, &opts, 1000));
    send_segments(s, NULL, 950, 100);
    check_pieces(r, 950, 100);
    CHECK_OK(netio_close(&s));
    if (on_linux) {
        CHECK_OK(netio_bind(&s, "0.0.0.0:0", NULL));
        letters(1, 10, &to);
        test_fill(big_out, 950, 950);
        out[0].data = big_out;
        out[0].len = 950;
        out[0].segment = 100;
        host(&out[0].local, "127.0.0.3", 0);
        out[0].ifindex = loopback_index();
        CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
        CHECK_ERR(100, netio_recvfrom(r, big_in, sizeof big_in, &local, 2000));
        CHECK_STR("127.0.0.3", text_of(&local));
        for (int i = 0; i < 8; i++) CHECK_ERR(100, netio_recv(r, big_in, sizeof big_in, 2000));
        CHECK_ERR(50, netio_recv(r, big_in, sizeof big_in, 2000));
        CHECK_OK(netio_close(&s));
    }
    CHECK_OK(netio_close(&r));
}

TEST(batch, segments_over_ipv6_and_through_a_dual_stack_socket)
{
    static const char *const targets[] = {"::1", "127.0.0.1"};
    netio_socket s, r;
    netio_addr to;
    if (!has_ipv6()) SKIP("no IPv6 here");
    if (test_under("qemu")) SKIP("qemu-user does not translate it");
    receiver(&r, &to, ":0");
    CHECK_OK(netio_bind(&s, ":0", NULL));
    for (int i = 0; i < 4; i++) {
        host(&to, targets[i % 2], netio_addr_port(&to));
        letters(1, 10, &to);
        test_fill(big_out, 6350, (uint32_t)i);
        out[0].data = big_out;
        out[0].len = 6350;
        out[0].segment = 100;
        if (i >= 2 && netio_option_supported(NETIO_OPT_RECV_LOCAL)) {
            host(&out[0].local, targets[i % 2], 0);
            out[0].ifindex = loopback_index();
        }
        CHECK_ERR(1, netio_send_batch(s, out, 1, 5000));
        check_pieces(r, 6350, 100);
    }
    // And joined on the way in.
    if (turn_on(r, NETIO_OPT_RECV_SEGMENTS)) {
        for (int i = 0; i < 2; i++) {
            host(&to, targets[i], netio_addr_port(&to));
            send_segments(s, &to, 6350, 100);
            for (size_t got = 0; got < 6350; got += in[0].len) {
                rooms(1, EACH);
                in[0].data = big_in;
                in[0].cap = sizeof big_in;
                CHECK_EQ(1, take(r, 1));
                CHECK(in[0].len > 0);
                CHECK_MEM(big_out + got, big_in, in[0].len);
                CHECK(in[0].segment == 100 || (in[0].segment == 0 && in[0].len <= 100));
                CHECK_EQ(netio_addr_family(&to), netio_addr_family(&in[0].peer));
            }
        }
    }
    close_two(&s, &r);
}

TEST(batch, segments_and_whole_ones_in_one_call)
{
    netio_socket s, r;
    netio_addr to;
    if (test_under("qemu")) SKIP("qemu-user does not translate it");
    two(&s, &r, &to);
    letters(9, 90, &to);
    for (int i = 0; i < 9; i += 2) out[i].segment = 40; // 40, 40, 10
    CHECK_ERR(9, netio_send_batch(s, out, 9, 1000));
    for (int i = 0; i < 9; i++) {
        size_t at = 0;
        while (at < 90) {
            size_t want = i % 2 ? 90 : at < 80 ? 40 : 10;
            CHECK_ERR(want, netio_recv(r, big_in, sizeof big_in, 2000));
            CHECK_MEM(out_bytes[i] + at, big_in, want);
            at += want;
        }
    }
    CHECK_ERR(NETIO_EAGAIN, netio_recv(r, big_in, sizeof big_in, 0));
    close_two(&s, &r);
}

TEST(batch, segments_beyond_one_ip_packet_go_too)
{
    // 64 of 1,400 bytes are more than the 65,535 that one segmented send may have on Linux.
    netio_socket s, r;
    netio_addr to;
    if (test_under("qemu")) SKIP("qemu-user does not translate it");
    two(&s, &r, &to);
    CHECK_OK(netio_set_option(s, NETIO_OPT_SNDBUF, 1 << 18));
    send_segments(s, &to, 64 * 1400, 1400);
    check_pieces(r, 64 * 1400, 1400);
    // More pieces than a kernel cuts at once (64, newer ones 128).
    send_segments(s, &to, 2000, 10);
    check_pieces(r, 2000, 10);
    close_two(&s, &r);
}

TEST(batch, segments_that_the_kernel_refuses_are_sent_one_by_one)
{
#ifdef __linux__
    netio_socket s, r;
    netio_addr to;
    int on = 1;
    if (test_under("qemu")) SKIP("qemu-user does not translate it");
    two(&s, &r, &to);
    // Segmentation needs checksums: without them the kernel says EINVAL.
    CHECK_OK(netio_set_option_raw(s, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on));
    send_segments(s, &to, 6390, 100);
    check_pieces(r, 6390, 100);
    // In the middle of a batch as well.
    letters(3, 90, &to);
    out[1].segment = 50;
    CHECK_ERR(3, netio_send_batch(s, out, 3, 1000));
    CHECK_ERR(90, netio_recv(r, big_in, sizeof big_in, 2000));
    CHECK_ERR(50, netio_recv(r, big_in, sizeof big_in, 2000));
    CHECK_ERR(40, netio_recv(r, big_in, sizeof big_in, 2000));
    CHECK_MEM(out_bytes[1] + 50, big_in, 40);
    CHECK_ERR(90, netio_recv(r, big_in, sizeof big_in, 2000));
    close_two(&s, &r);
#else
    SKIP("only Linux is asked, and may refuse");
#endif
}

TEST(batch, segments_on_sockets_that_know_none_are_sent_one_by_one)
{
    netio_socket pair[2];
    if (netio_pair(pair, NETIO_DGRAM) < 0) SKIP("no pairs of datagram sockets here");
    if (test_under("qemu")) {
        close_two(&pair[0], &pair[1]);
        SKIP("qemu-user does not translate it");
    }
    send_segments(pair[0], NULL, 450, 100);
    check_pieces(pair[1], 450, 100);
    close_two(&pair[0], &pair[1]);
}

TEST(batch, the_kernel_may_join_what_comes)
{
    netio_socket s, r;
    netio_addr to;
    if (test_under("qemu")) SKIP("qemu-user does not translate it");
    two(&s, &r, &to);
    if (!turn_on(r, NETIO_OPT_RECV_SEGMENTS)) {
        close_two(&s, &r);
        SKIP("this system does not, and netio says so");
    }
    rooms(1, EACH);
    in[0].data = big_in;
    in[0].cap = sizeof big_in;
    send_segments(s, &to, 6350, 100);
    CHECK_EQ(1, take(r, 1));
    if (in[0].segment == 0) { // it may, it need not: then each is by itself
        CHECK_EQ(100, in[0].len);
    } else {
        CHECK_EQ(100, in[0].segment);
        CHECK_EQ(6350, in[0].len);
        CHECK_EQ(6350, in[0].full);
        CHECK(!in[0].truncated);
        CHECK_MEM(big_out, big_in, 6350);
        // Sent back as it is, it is cut again.
        CHECK_ERR(1, netio_send_batch(r, in, 1, 1000));
        memcpy(big_out, big_in, 6350);
        check_pieces(s, 6350, 100);
        // One that was not segmented is just one.
        send_segments(s, &to, 80, 0);
        in[0].segment = 77;
        CHECK_EQ(1, take(r, 1));
        CHECK_EQ(80, in[0].len);
        CHECK_EQ(0, in[0].segment);
        // Cut, it says so, and still how the pieces lie.
        send_segments(s, &to, 1000, 100);
        in[0].cap = 250;
        CHECK_EQ(1, take(r, 1));
        CHECK_EQ(250, in[0].len);
        CHECK(in[0].truncated);
        CHECK_EQ(on_linux ? 1000 : 251, in[0].full);
        CHECK_EQ(100, in[0].segment);
    }
    close_two(&s, &r);
}

#ifdef __linux__
static int over_a_small_mtu_by(const char *address, int headers)
{
    netio_socket s, r, peered;
    netio_socket_opts opts = {0};
    netio_addr to;
    char text[NETIO_ADDR_TEXT];
    int mtu = 0;
    opts.type = NETIO_DGRAM;
    NEED(netio_bind(&s, address, NULL) == 0 && netio_bind(&r, address, NULL) == 0);
    NEED(netio_local_addr(r, &to) == 0 && netio_addr_format(&to, text, sizeof text) > 0);
    NEED(netio_connect(&peered, text, &opts, 1000) == 0);
    memset(out, 0, sizeof out);
    out[0].peer = to;
    out[0].data = big_out;
    out[0].len = 1400;
    test_fill(big_out, 8000, 3);
    // It goes in fragments, until that is forbidden; then the limit can be read.
    NEED(netio_set_option(s, NETIO_OPT_DONTFRAG, 0) == 0);
    NEED(netio_send_batch(s, out, 1, 1000) == 1);
    NEED(netio_recv(r, big_in, sizeof big_in, 2000) == 1400);
    NEED(netio_set_option(s, NETIO_OPT_DONTFRAG, 1) == 0);
    NEED(netio_send_batch(s, out, 1, 1000) == NETIO_EMSGSIZE);
    NEED(netio_get_option(peered, NETIO_OPT_MTU, &mtu) == 0 && mtu == 1280);
    out[0].len = (size_t)(mtu - headers);
    NEED(netio_send_batch(s, out, 1, 1000) == 1);
    NEED(netio_recv(r, big_in, sizeof big_in, 2000) == mtu - headers);
    out[0].len++;
    NEED(netio_send_batch(s, out, 1, 1000) == NETIO_EMSGSIZE);
    // Segments larger than the path takes: refused by the kernel, so one by one, in fragments.
    NEED(netio_set_option(s, NETIO_OPT_DONTFRAG, 0) == 0);
    out[0].len = 5000;
    out[0].segment = 1400;
    NEED(netio_send_batch(s, out, 1, 1000) == 1);
    for (size_t at = 0; at < 5000; at += 1400) {
        size_t want = 5000 - at < 1400 ? 5000 - at : 1400;
        NEED(netio_recv(r, big_in, sizeof big_in, 2000) == (ptrdiff_t)want);
        NEED(memcmp(big_in, big_out + at, want) == 0);
    }
    // And not at all if they may not be fragmented.
    NEED(netio_set_option(s, NETIO_OPT_DONTFRAG, 1) == 0);
    NEED(netio_send_batch(s, out, 1, 1000) == NETIO_EMSGSIZE);
    NEED(netio_recv(r, big_in, sizeof big_in, 0) == NETIO_EAGAIN);
    netio_close(&s);
    netio_close(&r);
    netio_close(&peered);
    return 0;
}

static int over_a_small_mtu(void)
{
    int code = over_a_small_mtu_by("127.0.0.1:0", 20 + 8);
    return code || !has_ipv6() ? code : over_a_small_mtu_by("[::1]:0", 40 + 8);
}
#else
static int over_a_small_mtu(void) { return CANNOT; }
#endif

TEST(batch, a_datagram_larger_than_the_path_is_emsgsize_and_the_limit_can_be_read)
{
    int code;
    if (test_under("qemu") || test_under("valgrind")) SKIP("unshare is not for emulators");
    code = in_own_network(over_a_small_mtu, 1280);
    if (code == CANNOT) SKIP("needs a network of its own: Linux, and the right to make one");
    CHECK_EQ(0, code);
}

//================================================================================================
// Refusals, waiting, the end
//================================================================================================

TEST(batch, streams_are_refused)
{
    netio_socket a, b, pair[2];
    size_t bytes = 0;
    test_tcp_pair(&a, &b);
    rooms(4, EACH);
    CHECK_ERR(5, netio_send(a, "hello", 5, 1000));
    CHECK_EQ(NETIO_EV_READ, netio_wait(b, NETIO_EV_READ, 5000) & NETIO_EV_READ);
    CHECK_ERR(NETIO_EINVAL, netio_recv_batch(b, in, 4, 1000));
    CHECK_OK(netio_close(&a));
    CHECK_EQ(NETIO_EV_READ, netio_wait(b, NETIO_EV_READ, 5000) & NETIO_EV_READ);
    CHECK_ERR(NETIO_EINVAL, netio_recv_batch(b, in, 4, 1000)); // at the end as well
    CHECK_OK(netio_close(&b));
    // What a stream takes is no matter of whole datagrams: a part of one would be lost.
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    letters(8, 10, NULL);
    for (int i = 0; i < 8; i++) out[i].data = big_out, out[i].len = 100000;
    CHECK_ERR(NETIO_EINVAL, netio_send_batch(pair[0], out, 8, 0));
    while (netio_recv(pair[1], big_in, sizeof big_in, 0) > 0) bytes++;
    CHECK_EQ(0, bytes);
    close_two(&pair[0], &pair[1]);
}

TEST(batch, a_stream_with_a_name_is_refused_too)
{
    // A Unix stream of a bound peer tells its name with the bytes, like a datagram.
    netio_socket listener, client, server;
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    snprintf(text, sizeof text, "unix:%.100s", test_path("named"));
    if (test_under("wine") || netio_addr_parse(&a, text, strlen(text)) < 0)
        SKIP("no Unix sockets here");
    CHECK_OK(netio_listen(&listener, text, NULL));
    CHECK_OK(netio_connect(&client, text, NULL, 1000));
    CHECK_OK(netio_accept(&server, listener, NULL, 1000));
    CHECK_ERR(5, netio_send(server, "hello", 5, 1000));
    rooms(4, EACH);
    CHECK_ERR(NETIO_EINVAL, netio_recv_batch(client, in, 4, 1000));
    CHECK_ERR(5, netio_send(server, "hello", 5, 1000));
    CHECK_ERR(NETIO_EINVAL, netio_recvfrom(client, big_in, 5, &a, 1000));
    CHECK_OK(netio_close(&client));
    close_two(&listener, &server);
}

TEST(batch, receiving_waits_for_the_first_and_no_longer_than_asked)
{
    netio_socket s, r;
    netio_addr to;
    uint64_t before;
    two(&s, &r, &to);
    rooms(8, EACH);
    CHECK_ERR(NETIO_EAGAIN, netio_recv_batch(r, in, 8, 0));
    before = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv_batch(r, in, 8, 60));
    CHECK_BETWEEN(60 - 1, 2000, test_ms() - before);
    letters(1, 10, &to);
    CHECK_ERR(1, netio_send_batch(s, out, 1, 0));
    before = test_ms();
    CHECK_ERR(1, netio_recv_batch(r, in, 8, -1)); // seven more do not come, and are not waited for
    CHECK_BETWEEN(0, 2000, test_ms() - before);
    check_letter(&in[0], 0, 10);
    close_two(&s, &r);
}

static void send_late(void *arg)
{
    const netio_socket *s = (const netio_socket *)arg;
    test_sleep_ms(40);
    netio_send_batch(*s, out, 1, 1000);
}

TEST(batch, what_comes_while_it_waits_ends_the_wait)
{
    netio_socket s, r;
    netio_addr to;
    test_thread t;
    uint64_t before;
    two(&s, &r, &to);
    rooms(8, EACH);
    letters(1, 10, &to);
    before = test_ms();
    test_thread_start(&t, send_late, &s);
    CHECK_ERR(1, netio_recv_batch(r, in, 8, 10000));
    CHECK_BETWEEN(35, 5000, test_ms() - before);
    test_thread_join(&t);
    check_letter(&in[0], 0, 10);
    close_two(&s, &r);
}

TEST(batch, a_connected_socket_needs_no_peer_and_is_told_that_nobody_listens)
{
    netio_socket r, s;
    netio_socket_opts opts = {0};
    netio_addr to;
    char text[NETIO_ADDR_TEXT];
    ptrdiff_t n = 0;
    receiver(&r, &to, "127.0.0.1:0");
    CHECK(netio_addr_format(&to, text, sizeof text) > 0);
    opts.type = NETIO_DGRAM;
    CHECK_OK(netio_connect(&s, text, &opts, 1000));
    letters(3, 10, NULL);
    CHECK_ERR(3, netio_send_batch(s, out, 3, 1000));
    rooms(8, EACH);
    CHECK_EQ(3, take(r, 3));
    CHECK_ERR(3, netio_send_batch(r, in, 3, 1000));
    rooms(8, EACH);
    CHECK_EQ(3, take(s, 3));
    for (size_t i = 0; i < 3; i++) check_letter(&in[i], i, 10);
    CHECK_OK(netio_close(&r));
    CHECK_ERR(1, netio_send_batch(s, out, 1, 1000));
    n = netio_recv_batch(s, in, 8, 500);
    if (n != NETIO_ETIMEDOUT || !test_under("wine")) // which loses it when select sees it first
        CHECK_ERR(NETIO_ECONNREFUSED, n);
    CHECK_OK(netio_close(&s));
}

TEST(batch, an_unconnected_socket_without_peer_is_enotconn)
{
    netio_socket s, r;
    netio_addr to;
    two(&s, &r, &to);
    letters(2, 10, NULL);
    if (!test_under("wine")) CHECK_ERR(NETIO_ENOTCONN, netio_send_batch(s, out, 2, 100));
    else CHECK(netio_send_batch(s, out, 2, 100) < 0); // EINVAL
    out[0].peer = to;
    CHECK_ERR(1, netio_send_batch(s, out, 2, 100)); // the first has one
    close_two(&s, &r);
}

TEST(batch, earlier_datagrams_fates_stay_unheard)
{
    netio_socket s, closed, r;
    netio_addr dead, to;
    two(&s, &r, &to);
    CHECK_OK(netio_bind(&closed, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(closed, &dead));
    CHECK_OK(netio_close(&closed));
    letters(10, 10, &to);
    for (int i = 0; i < 10; i += 2) out[i].peer = dead;
    CHECK_ERR(10, netio_send_batch(s, out, 10, 1000));
    rooms(10, EACH);
    CHECK_EQ(5, take(r, 5));
    for (size_t i = 0; i < 5; i++) check_letter(&in[i], 2 * i + 1, 10);
    CHECK_ERR(NETIO_EAGAIN, netio_recv_batch(s, in, 10, 0));
    close_two(&s, &r);
}

TEST(batch, bad_arguments)
{
    netio_socket s, r, none = NETIO_INVALID_SOCKET;
    netio_addr to;
    two(&s, &r, &to);
    rooms(4, EACH);
    letters(4, 10, &to);
    CHECK_ERR(NETIO_EINVAL, netio_recv_batch(r, NULL, 4, 0));
    CHECK_ERR(NETIO_EINVAL, netio_recv_batch(r, in, 0, 0));
    CHECK_ERR(NETIO_EINVAL, netio_send_batch(s, NULL, 4, 0));
    CHECK_ERR(NETIO_EINVAL, netio_send_batch(s, out, 0, 0));
    CHECK_ERR(NETIO_EBADF, netio_recv_batch(none, in, 4, 0));
    CHECK_ERR(NETIO_EBADF, netio_recv_batch(none, in, 4, 100));
    CHECK_ERR(NETIO_EBADF, netio_send_batch(none, out, 4, 100));
    in[3].data = NULL;
    out[3].data = NULL;
    CHECK_ERR(NETIO_EINVAL, netio_recv_batch(r, in, 4, 0));
    CHECK_ERR(NETIO_EINVAL, netio_send_batch(s, out, 4, 0)); // and the first three stay here
    nothing_more(r);
    out[3].data = big_out;
    out[3].len = SIZE_MAX;
    CHECK_ERR(NETIO_EMSGSIZE, netio_send_batch(s, out, 4, 0));
    nothing_more(r);
    close_two(&s, &r);
}

TEST(batch, every_datagram_is_an_operation_and_none_takes_memory)
{
    netio_socket s, r;
    netio_addr to;
    long allocs, sends, receives;
    two(&s, &r, &to);
    rooms(100, EACH);
    letters(100, 10, &to);
    allocs = test_allocs();
    sends = test_ops(NETIO_OP_SEND);
    receives = test_ops(NETIO_OP_RECV);
    CHECK_ERR(100, netio_send_batch(s, out, 100, 1000));
    CHECK_EQ(100, take(r, 100));
    CHECK_EQ(sends + 100, test_ops(NETIO_OP_SEND));
    CHECK_EQ(receives + 100, test_ops(NETIO_OP_RECV));
    CHECK_EQ(allocs, test_allocs());
    // So is a failure, as with single datagrams.
    receives = test_ops(NETIO_OP_RECV);
    CHECK_ERR(NETIO_EAGAIN, netio_recvfrom(r, big_in, 10, NULL, 0));
    CHECK_EQ(receives + 1, test_ops(NETIO_OP_RECV));
    CHECK_ERR(NETIO_EAGAIN, netio_recv_batch(r, in, 10, 0));
    CHECK_EQ(receives + 2, test_ops(NETIO_OP_RECV));
    out[0].len = 70000;
    out[0].data = big_out;
    sends = test_ops(NETIO_OP_SEND);
    CHECK_ERR(NETIO_EMSGSIZE, netio_send_batch(s, out, 2, 0));
    CHECK_EQ(sends + 1, test_ops(NETIO_OP_SEND));
    close_two(&s, &r);
}

//================================================================================================
// Drops, and control messages that are cut
//================================================================================================

TEST(batch, what_a_full_receive_buffer_drops_is_counted)
{
    netio_socket s, r;
    netio_addr to;
    int drops = -1;
    size_t got = 0;
    ptrdiff_t n;
    if (test_under("qemu")) SKIP("qemu-user does not translate it");
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&r, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(r, &to));
    if (!netio_option_supported(NETIO_OPT_DROPS)) {
        CHECK_ERR(NETIO_ENOTSUP, netio_get_option(r, NETIO_OPT_DROPS, &drops));
        close_two(&s, &r);
        SKIP("this system does not tell, and netio says so");
    }
    CHECK_OK(netio_get_option(r, NETIO_OPT_DROPS, &drops));
    CHECK_EQ(0, drops);
    CHECK_OK(netio_set_option(r, NETIO_OPT_RCVBUF, 20000));
    letters(MANY, 1500, &to);
    CHECK_ERR(MANY, netio_send_batch(s, out, MANY, 5000));
    rooms(MANY, EACH);
    while (got < MANY && (n = netio_recv_batch(r, in + got, MANY - got, 200)) > 0) got += (size_t)n;
    CHECK_BETWEEN(1, MANY - 1, got);
    CHECK_OK(netio_get_option(r, NETIO_OPT_DROPS, &drops));
    CHECK_EQ(MANY - (long long)got, drops); // not one is unaccounted for
    CHECK_OK(netio_get_option(r, NETIO_OPT_DROPS, &drops));
    CHECK_EQ(MANY - (long long)got, drops); // reading does not clear it
    CHECK(netio_set_option(r, NETIO_OPT_DROPS, 0) < 0);
    close_two(&s, &r);
    test_tcp_pair(&s, &r);
    CHECK_ERR(NETIO_ENOTSUP, netio_get_option(r, NETIO_OPT_DROPS, &drops)); // TCP drops nothing
    close_two(&s, &r);
}

TEST(batch, control_messages_that_are_cut_leave_zeroes_and_the_datagram_whole)
{
#ifdef __linux__
    // All that a kernel can be asked for behind netio's back is more than its room for control
    // messages. What fits must be right, what does not must be zero, never half of something.
    static const int more[][2] = {
        {IPPROTO_IPV6, 74 /* IPV6_RECVORIGDSTADDR */},
        {IPPROTO_IPV6, 51 /* IPV6_RECVHOPLIMIT */},
        {IPPROTO_IPV6, 66 /* IPV6_RECVTCLASS */},
        {IPPROTO_IPV6, 60 /* IPV6_RECVPATHMTU */},
        {IPPROTO_IPV6, 11 /* IPV6_FLOWINFO */},
        {SOL_SOCKET, 40 /* SO_RXQ_OVFL */},
        {SOL_SOCKET, 75 /* SO_RCVMARK */},
        {SOL_SOCKET, 82 /* SO_RCVPRIORITY */},
        {IPPROTO_IP, 20 /* IP_RECVORIGDSTADDR */},
        {IPPROTO_IP, 23 /* IP_CHECKSUM */},
        {IPPROTO_IP, 25 /* IP_RECVFRAGSIZE */},
        {IPPROTO_IP, 6 /* IP_RECVOPTS */},
        {IPPROTO_IP, 7 /* IP_RETOPTS */},
        {IPPROTO_IP, 18 /* IP_PASSSEC */},
    };
    static const char *const targets[] = {"127.0.0.1", "::1"};
    int stamps = 0x1F | 1 << 11 | 1 << 14; // SOF_TIMESTAMPING_*: hardware and software, both
    uint64_t now = wall_ns();
    netio_socket s[2], r;
    netio_addr to, any;
    if (!has_ipv6()) SKIP("no IPv6 here");
    if (test_under("qemu")) SKIP("qemu-user does not translate control messages");
    receiver(&r, &any, ":0");
    CHECK_OK(netio_bind(&s[0], "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&s[1], "[::1]:0", NULL));
    turn_on(r, NETIO_OPT_RECV_LOCAL);
    turn_on(r, NETIO_OPT_RECV_TTL);
    turn_on(r, NETIO_OPT_RECV_TOS);
    turn_on(r, NETIO_OPT_RECV_TIME);
    turn_on(r, NETIO_OPT_RECV_SEGMENTS);
    for (size_t have = 0; have <= sizeof more / sizeof more[0]; have++) {
        for (int family = 0; family < 2; family++) {
            host(&to, targets[family], netio_addr_port(&any));
            CHECK_OK(netio_set_option(s[family], NETIO_OPT_TTL, 33));
            CHECK_OK(netio_set_option(s[family], NETIO_OPT_TOS, 0xB8));
            letters(6, 60, &to);
            out[1].segment = 20;
            CHECK_ERR(6, netio_send_batch(s[family], out, 6, 1000));
            rooms(8, EACH);
            for (size_t got = 0, bytes = 0; bytes < 360; got++) {
                netio_datagram *m = &in[got];
                CHECK(got < 8);
                CHECK_ERR(1, netio_recv_batch(r, m, 1, 2000));
                CHECK_MEM(out_bytes[bytes / 60] + bytes % 60, m->data, m->len);
                bytes += m->len;
                CHECK(!m->truncated);
                CHECK(m->peer.len > 0);
                CHECK(m->ttl == 33 || m->ttl == 0);
                CHECK(m->tos == 0xB8 || m->tos == 0);
                CHECK(m->segment == 20 || m->segment == 0);
                CHECK(m->ifindex == loopback_index() || m->ifindex == 0);
                if (m->local.len) CHECK_STR(targets[family], text_of(&m->local));
                if (m->time_ns) CHECK_BETWEEN(0, 60000, (int64_t)(m->time_ns - now) / 1000000 + 2);
                if (have == 0) CHECK(m->ttl && m->tos && m->ifindex && m->local.len && m->time_ns);
            }
            nothing_more(r);
        }
        if (have == sizeof more / sizeof more[0]) break;
        // What this kernel does not know is passed over.
        if (netio_set_option_raw(r, more[have][0], more[have][1], &(int){1}, sizeof(int)) < 0)
            continue;
        netio_set_option_raw(r, SOL_SOCKET, 37 /* SO_TIMESTAMPING */, &stamps, sizeof stamps);
    }
    CHECK_OK(netio_close(&r));
    close_two(&s[0], &s[1]);
#else
    SKIP("only Linux has enough to ask for");
#endif
}

//================================================================================================

// clang-format off
TEST_MAIN("batch",
    T(batch, sixty_four_go_in_one_call_and_come_in_order),
    T(batch, sixty_four_are_one_system_call_on_linux),
    T(batch, more_than_a_call_takes_are_several),
    T(batch, what_is_there_is_taken_and_the_rest_stays_untouched),
    T(batch, one_that_cannot_go_ends_a_batch_and_is_named_next),
    T(batch, different_peers_in_one_call),
    T(batch, a_full_peer_takes_a_part_and_the_rest_in_time),
    T(batch, a_batch_waits_for_room_within_its_time),
    T(batch, cut_ones_give_their_bytes_and_harm_no_neighbour),
    T(batch, empty_ones_and_empty_rooms),
    T(batch, the_largest_datagram_fits_and_one_byte_more_does_not_go),
    T(batch, nothing_is_told_that_was_not_asked_for),
    T(batch, an_answer_comes_from_the_address_that_was_asked),
    T(batch, on_ipv6_too),
    T(batch, a_dual_stack_socket_tells_and_answers_ipv4_peers),
    T(batch, a_source_that_is_not_ours_is_refused_and_no_source_is_left_to_the_os),
    T(batch, a_chosen_way_out_is_used_and_an_unknown_one_is_enodev),
    T(batch, a_source_in_mapped_form_is_used),
    T(batch, a_source_of_the_other_family_is_refused),
    T(batch, a_way_out_counts_on_connected_sockets_too),
    T(batch, peers_in_other_forms_are_reached_as_by_sendto),
    T(batch, an_echo_of_batches_needs_no_change),
    T(batch, hops_and_traffic_class_of_ipv4),
    T(batch, hops_and_traffic_class_of_ipv6),
    T(batch, hops_and_traffic_class_of_ipv4_through_a_dual_stack_socket),
    T(batch, arrival_times_are_on_the_wall_clock_and_in_order),
    T(batch, segments_are_cut_where_asked),
    T(batch, segments_on_connected_sockets_and_with_a_source),
    T(batch, segments_over_ipv6_and_through_a_dual_stack_socket),
    T(batch, segments_and_whole_ones_in_one_call),
    T(batch, segments_beyond_one_ip_packet_go_too),
    T(batch, segments_that_the_kernel_refuses_are_sent_one_by_one),
    T(batch, segments_on_sockets_that_know_none_are_sent_one_by_one),
    T(batch, the_kernel_may_join_what_comes),
    T(batch, a_datagram_larger_than_the_path_is_emsgsize_and_the_limit_can_be_read),
    T(batch, streams_are_refused),
    T(batch, a_stream_with_a_name_is_refused_too),
    T(batch, receiving_waits_for_the_first_and_no_longer_than_asked),
    T(batch, what_comes_while_it_waits_ends_the_wait),
    T(batch, a_connected_socket_needs_no_peer_and_is_told_that_nobody_listens),
    T(batch, an_unconnected_socket_without_peer_is_enotconn),
    T(batch, earlier_datagrams_fates_stay_unheard),
    T(batch, bad_arguments),
    T(batch, every_datagram_is_an_operation_and_none_takes_memory),
    T(batch, what_a_full_receive_buffer_drops_is_counted),
    T(batch, control_messages_that_are_cut_leave_zeroes_and_the_datagram_whole))
