// Unix sockets in full: descriptors that travel along, and those that nobody asked for; who is at
// the other end; records and datagrams, whole and in batches, by path and by abstract name.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifndef _WIN32
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#if defined(_WIN32) || defined(NETIO_NO_UNIX)

TEST(fds, nothing_is_passed_on_this_system)
{
#ifdef NETIO_NO_UNIX
    SKIP("built without Unix sockets");
#else
    netio_socket pair[2], fds[1];
    size_t count = 1;
    netio_cred cred;
    char c;
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    fds[0] = pair[0];
    CHECK_ERR(NETIO_ENOTSUP, netio_send_fds(pair[0], "x", 1, fds, 1, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_recv_fds(pair[1], &c, 1, fds, &count, 0));
    CHECK_EQ(0, count);
    CHECK_ERR(NETIO_ENOTSUP, netio_peer_cred(pair[0], &cred)); // loopback TCP
    CHECK_OK(netio_close(&pair[0]));
    CHECK_OK(netio_close(&pair[1]));
#endif
}

TEST(fds, records_are_not_of_this_system)
{
    netio_socket pair[2];
    CHECK_ERR(NETIO_ENOTSUP, netio_pair(pair, NETIO_SEQPACKET));
}

// clang-format off
TEST_MAIN("fds",
    T(fds, nothing_is_passed_on_this_system),
    T(fds, records_are_not_of_this_system))
// clang-format on

#else

//================================================================================================
// Helpers
//================================================================================================

#ifdef __linux__
static const bool on_linux = true;
#else
static const bool on_linux = false;
#endif

static const int types[] = {NETIO_STREAM, NETIO_DGRAM, NETIO_SEQPACKET};

// Every type of pair that this system has, one after the other.
static bool open_pair(netio_socket pair[2], int i)
{
    int err = netio_pair(pair, types[i]);
    if (err == NETIO_ENOTSUP && types[i] == NETIO_SEQPACKET && !on_linux) return false;
    CHECK_OK(err);
    return true;
}

static void close_pair(netio_socket pair[2])
{
    CHECK_OK(netio_close(&pair[0]));
    CHECK_OK(netio_close(&pair[1]));
}

// The pipe of a test: what is written into ends[1] proves that a copy of it is the same file.
static void open_pipe(int ends[2]) { CHECK_EQ(0, pipe(ends)); }

static void close_pipe(int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

static void check_same(int copy, const int ends[2])
{
    char c = 0;
    CHECK(copy != ends[0] && copy != ends[1]);
    CHECK_EQ(FD_CLOEXEC, fcntl(copy, F_GETFD));
    CHECK_EQ(1, write(copy, "!", 1));
    CHECK_EQ(1, read(ends[0], &c, 1));
    CHECK_EQ('!', c);
}

static void fill_fds(netio_socket *fds, size_t count, int fd)
{
    for (size_t i = 0; i < count; i++) fds[i] = fd;
}

static void close_fds(netio_socket *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) CHECK_EQ(0, close(fds[i]));
}

// More descriptors in one message than netio_send_fds would put there, as a foreign sender may.
enum { MOST = 252 }; // Linux passes 253 at once, musl's sendmsg one less

static void send_many(netio_socket s, int fd, size_t count)
{
    union {
        char bytes[CMSG_SPACE(300 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr h;
    struct iovec v;
    struct cmsghdr *c;
    char data[] = "many";
    memset(&h, 0, sizeof h);
    memset(&control, 0, sizeof control);
    v.iov_base = data;
    v.iov_len = 4;
    h.msg_iov = &v;
    h.msg_iovlen = 1;
    h.msg_control = control.bytes;
    h.msg_controllen = CMSG_SPACE(count * sizeof(int));
    c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (size_t i = 0; i < count; i++) memcpy(CMSG_DATA(c) + i * sizeof fd, &fd, sizeof fd);
    CHECK_EQ(4, sendmsg(s, &h, 0));
}

// In a child process: what fails is printed, and ends the child's part.
#define NEED(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            printf("    %s:%d: %s\n", __FILE__, __LINE__, #cond);                                  \
            fflush(stdout);                                                                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

static pid_t start(int (*run)(netio_socket s), netio_socket s)
{
    pid_t pid;
    fflush(stdout);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) _exit(run(s));
    return pid;
}

static void join(pid_t pid)
{
    int status = -1;
    CHECK_EQ(pid, waitpid(pid, &status, 0));
    CHECK(WIFEXITED(status));
    CHECK_EQ(0, WEXITSTATUS(status));
}

//================================================================================================
// Passing descriptors
//================================================================================================

TEST(fds, one_arrives_with_its_bytes_and_closes_on_exec)
{
    for (int i = 0; i < 3; i++) {
        netio_socket pair[2], fd[4] = {-7, -7, -7, -7};
        int ends[2];
        size_t count = 4;
        char buf[16];
        if (!open_pair(pair, i)) continue;
        open_pipe(ends);
        CHECK_ERR(5, netio_send_fds(pair[0], "hello", 5, &ends[1], 1, 1000));
        CHECK_EQ(1, write(ends[1], "s", 1)); // the sender's stays open
        CHECK_EQ(1, read(ends[0], buf, 1));
        CHECK_ERR(5, netio_recv_fds(pair[1], buf, sizeof buf, fd, &count, 1000));
        CHECK_MEM("hello", buf, 5);
        CHECK_EQ(1, count);
        check_same(fd[0], ends);
        CHECK_EQ(-7, fd[1]);
        close_fds(fd, 1);
        close_pipe(ends);
        close_pair(pair);
    }
}

TEST(fds, as_many_as_allowed_and_in_order)
{
    netio_socket pair[2], sent[NETIO_FDS_MAX], got[NETIO_FDS_MAX];
    int pipes[NETIO_FDS_MAX / 2][2];
    size_t count = NETIO_FDS_MAX;
    char buf[16];
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    for (int i = 0; i < NETIO_FDS_MAX / 2; i++) {
        open_pipe(pipes[i]);
        sent[2 * i] = pipes[i][0];
        sent[2 * i + 1] = pipes[i][1];
    }
    CHECK_ERR(3, netio_send_fds(pair[0], "all", 3, sent, NETIO_FDS_MAX, 1000));
    CHECK_ERR(3, netio_recv_fds(pair[1], buf, sizeof buf, got, &count, 1000));
    CHECK_EQ(NETIO_FDS_MAX, count);
    for (int i = 0; i < NETIO_FDS_MAX / 2; i++) {
        check_same(got[2 * i + 1], pipes[i]);
        CHECK_EQ(1, write(pipes[i][1], "?", 1));
        CHECK_EQ(1, read(got[2 * i], buf, 1));
        close_pipe(pipes[i]);
    }
    close_fds(got, NETIO_FDS_MAX);
    close_pair(pair);
}

TEST(fds, more_than_allowed_are_not_sent)
{
    netio_socket pair[2], sent[NETIO_FDS_MAX + 1];
    char c;
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    fill_fds(sent, NETIO_FDS_MAX + 1, pair[0]);
    CHECK_ERR(NETIO_EMSGSIZE, netio_send_fds(pair[0], "x", 1, sent, NETIO_FDS_MAX + 1, 1000));
    CHECK_ERR(NETIO_EMSGSIZE, netio_send_fds(pair[0], "x", 1, sent, SIZE_MAX, 1000));
    CHECK_ERR(NETIO_EAGAIN, netio_recv(pair[1], &c, 1, 0));
    close_pair(pair);
}

TEST(fds, surplus_ones_are_closed_and_named)
{
    for (int i = 0; i < 3; i++) {
        netio_socket pair[2], fds[8];
        int ends[2], before;
        char buf[16];
        if (!open_pair(pair, i)) continue;
        open_pipe(ends);
        for (size_t room = 0; room <= 6; room++) {
            size_t count = room;
            memset(buf, 0, sizeof buf);
            fill_fds(fds, 8, ends[1]);
            before = test_descriptors();
            CHECK_ERR(4, netio_send_fds(pair[0], "five", 4, fds, 5, 1000));
            fill_fds(fds, 8, -7);
            CHECK_ERR(room < 5 ? NETIO_EMSGSIZE : 4,
                      netio_recv_fds(pair[1], buf, sizeof buf, room ? fds : NULL, &count, 1000));
            CHECK_MEM("five", buf, 4);
            CHECK_EQ(room < 5 ? room : 5, count);
            CHECK_EQ(before + (int)count, test_descriptors());
            for (size_t k = 0; k < count; k++) check_same(fds[k], ends);
            for (size_t k = count; k < 8; k++) CHECK_EQ(-7, fds[k]);
            close_fds(fds, count);
        }
        close_pipe(ends);
        close_pair(pair);
    }
}

TEST(fds, a_flood_of_them_is_bounded)
{
    static const size_t floods[] = {65, 128, MOST};
    for (int i = 0; i < 3; i++) {
        netio_socket pair[2], fds[256];
        int ends[2];
        char buf[16];
        if (!open_pair(pair, i)) continue;
        open_pipe(ends);
        for (size_t k = 0; k < 3; k++) {
            size_t count = 256; // more than NETIO_FDS_MAX is not filled
            int before = test_descriptors();
            send_many(pair[0], ends[1], floods[k]);
            CHECK_ERR(NETIO_EMSGSIZE, netio_recv_fds(pair[1], buf, sizeof buf, fds, &count, 1000));
            CHECK_EQ(NETIO_FDS_MAX, count);
            CHECK_EQ(before + NETIO_FDS_MAX, test_descriptors());
            close_fds(fds, count);
            CHECK_EQ(before, test_descriptors());
        }
        close_pipe(ends);
        close_pair(pair);
    }
}

TEST(fds, bytes_without_any_are_just_bytes)
{
    for (int i = 0; i < 3; i++) {
        netio_socket pair[2], fds[4];
        size_t count = 4;
        char buf[16];
        if (!open_pair(pair, i)) continue;
        CHECK_ERR(5, netio_send_fds(pair[0], "plain", 5, NULL, 0, 1000));
        CHECK_ERR(5, netio_recv_fds(pair[1], buf, sizeof buf, fds, &count, 1000));
        CHECK_EQ(0, count);
        CHECK_ERR(5, netio_send(pair[0], "plain", 5, 1000));
        count = 0;
        CHECK_ERR(5, netio_recv_fds(pair[1], buf, sizeof buf, NULL, &count, 1000));
        CHECK_EQ(0, count);
        close_pair(pair);
    }
}

TEST(fds, messages_on_a_stream_keep_their_own)
{
    netio_socket pair[2], fds[4];
    int a[2], b[2];
    size_t bytes = 0, got = 0;
    char buf[64];
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    open_pipe(a);
    open_pipe(b);
    CHECK_ERR(1, netio_send(pair[0], "1", 1, 1000));
    CHECK_ERR(2, netio_send_fds(pair[0], "23", 2, &a[1], 1, 1000));
    CHECK_ERR(1, netio_send(pair[0], "4", 1, 1000));
    CHECK_ERR(2, netio_send_fds(pair[0], "56", 2, &b[1], 1, 1000));
    while (bytes < 6) {
        size_t count = 4 - got;
        ptrdiff_t n =
            netio_recv_fds(pair[1], buf + bytes, sizeof buf - bytes, fds + got, &count, 1000);
        CHECK(n > 0);
        bytes += (size_t)n;
        got += count;
        if (got == 1) CHECK(bytes >= 2); // with the message or before what follows it
    }
    CHECK_MEM("123456", buf, 6);
    CHECK_EQ(2, got);
    check_same(fds[0], a);
    check_same(fds[1], b);
    close_fds(fds, 2);
    close_pipe(a);
    close_pipe(b);
    close_pair(pair);
}

TEST(fds, they_come_with_the_first_part_of_a_message)
{
    netio_socket pair[2], fd = -7;
    int ends[2];
    char buf[16];
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    open_pipe(ends);
    CHECK_ERR(10, netio_send_fds(pair[0], "0123456789", 10, &ends[1], 1, 1000));
    for (int i = 0; i < 5; i++) {
        size_t count = 1;
        CHECK_ERR(2, netio_recv_fds(pair[1], buf, 2, &fd, &count, 1000));
        CHECK_EQ(i == 0, count);
        CHECK_EQ('0' + 2 * i, buf[0]);
    }
    check_same(fd, ends);
    close_fds(&fd, 1);
    close_pipe(ends);
    close_pair(pair);
}

//================================================================================================
// What comes unexpected
//================================================================================================

enum { BY_RECV, BY_RECVFROM, BY_RECVV, BY_EXACT, BY_PEEK, BY_BATCH, WAYS };

static ptrdiff_t receive(int way, netio_socket s, char *buf)
{
    netio_datagram m[3];
    netio_room room;
    netio_addr from;
    memset(m, 0, sizeof m);
    for (int i = 0; i < 3; i++) m[i].data = buf, m[i].cap = 16;
    room.data = buf;
    room.cap = 16;
    switch (way) {
    case BY_RECV: return netio_recv(s, buf, 16, 1000);
    case BY_RECVFROM: return netio_recvfrom(s, buf, 16, &from, 1000);
    case BY_RECVV: return netio_recvv(s, &room, 1, 1000);
    case BY_EXACT: return netio_recv_exact(s, buf, 4, NULL, 1000) == 0 ? 4 : -1;
    case BY_PEEK: return netio_peek(s, buf, 16, 1000);
    default: return netio_recv_batch(s, m, 3, 1000) == 1 ? (ptrdiff_t)m[0].len : -1;
    }
}

TEST(fds, unexpected_ones_are_closed_by_every_way_to_receive)
{
    for (int i = 0; i < 3; i++) {
        for (int way = 0; way < WAYS; way++) {
            netio_socket pair[2];
            int ends[2], before;
            char buf[16], c;
            bool datagrams_only = way == BY_RECVFROM || way == BY_BATCH;
            if ((datagrams_only && types[i] == NETIO_STREAM) || !open_pair(pair, i)) continue;
            open_pipe(ends);
            before = test_descriptors();
            for (int k = 0; k < 3; k++) {
                size_t many = k == 0 ? 1 : k == 1 ? 44 : MOST;
                // qemu-user itself loses those for which the program's room is too small.
                if (many == MOST && way == BY_BATCH && test_under("qemu")) continue;
                send_many(pair[0], ends[1], many);
                memset(buf, 0, sizeof buf);
                CHECK_ERR(4, receive(way, pair[1], buf));
                CHECK_MEM("many", buf, 4);
                CHECK_EQ(before, test_descriptors());
                if (way == BY_PEEK) CHECK_ERR(4, netio_recv(pair[1], buf, sizeof buf, 1000));
                CHECK_EQ(before, test_descriptors());
            }
            // Nobody holds the pipe's other end open, then.
            close(ends[1]);
            CHECK_EQ(0, read(ends[0], &c, 1));
            close(ends[0]);
            close_pair(pair);
        }
    }
}

TEST(fds, a_batch_with_descriptors_inside_leaks_none)
{
    netio_socket pair[2];
    netio_datagram m[6];
    char bytes[6][16];
    int ends[2], before;
    size_t got = 0;
    CHECK_OK(netio_pair(pair, NETIO_DGRAM));
    open_pipe(ends);
    before = test_descriptors();
    for (int i = 0; i < 3; i++) {
        CHECK_ERR(5, netio_send(pair[0], "plain", 5, 1000));
        send_many(pair[0], ends[1], 20);
    }
    memset(m, 0, sizeof m);
    for (int i = 0; i < 6; i++) m[i].data = bytes[i], m[i].cap = sizeof bytes[i];
    while (got < 6) {
        ptrdiff_t n = netio_recv_batch(pair[1], m + got, 6 - got, 1000);
        CHECK(n > 0);
        got += (size_t)n;
    }
    for (int i = 0; i < 6; i++) {
        CHECK_EQ(i % 2 ? 4 : 5, m[i].len);
        CHECK_MEM(i % 2 ? "many" : "plain", bytes[i], m[i].len);
    }
    CHECK_EQ(before, test_descriptors());
    close_pipe(ends);
    close_pair(pair);
}

TEST(fds, peeking_leaves_them_for_who_asks)
{
    netio_socket pair[2], fd;
    int ends[2];
    size_t count = 1;
    char buf[16];
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    open_pipe(ends);
    CHECK_ERR(4, netio_send_fds(pair[0], "four", 4, &ends[1], 1, 1000));
    CHECK_ERR(4, netio_peek(pair[1], buf, sizeof buf, 1000));
    CHECK_ERR(4, netio_recv_fds(pair[1], buf, sizeof buf, &fd, &count, 1000));
    CHECK_EQ(1, count);
    check_same(fd, ends);
    close_fds(&fd, 1);
    close_pipe(ends);
    close_pair(pair);
}

TEST(fds, other_things_that_the_kernel_adds_take_no_room_and_leak_nothing)
{
#ifdef __linux__
    // Credentials, and a descriptor of the sender's process (SO_PASSPIDFD, Linux 6.5).
    static const int options[] = {SO_PASSCRED, 76};
    if (test_under("qemu")) SKIP("qemu-user does not translate it");
    for (int i = 0; i < 3; i++) {
        netio_socket pair[2], fds[NETIO_FDS_MAX];
        int ends[2], before, on = 1;
        char buf[16];
        if (!open_pair(pair, i)) continue;
        open_pipe(ends);
        for (size_t k = 0; k < 2; k++) {
            size_t count = NETIO_FDS_MAX;
            netio_datagram m;
            if (netio_set_option_raw(pair[1], SOL_SOCKET, options[k], &on, sizeof on) < 0) continue;
            before = test_descriptors();
            send_many(pair[0], ends[1], NETIO_FDS_MAX);
            CHECK_ERR(4, netio_recv_fds(pair[1], buf, sizeof buf, fds, &count, 1000));
            CHECK_EQ(NETIO_FDS_MAX, count);
            CHECK_EQ(before + NETIO_FDS_MAX, test_descriptors());
            for (size_t n = 0; n < count; n++) check_same(fds[n], ends);
            close_fds(fds, count);
            CHECK_ERR(5, netio_send(pair[0], "plain", 5, 1000));
            count = 2;
            CHECK_ERR(5, netio_recv_fds(pair[1], buf, sizeof buf, fds, &count, 1000));
            CHECK_EQ(0, count);
            CHECK_EQ(before, test_descriptors());
            if (types[i] == NETIO_STREAM) continue;
            memset(&m, 0, sizeof m);
            m.data = buf;
            m.cap = sizeof buf;
            CHECK_ERR(5, netio_send(pair[0], "plain", 5, 1000));
            CHECK_ERR(1, netio_recv_batch(pair[1], &m, 1, 1000));
            CHECK_EQ(before, test_descriptors());
        }
        close_pipe(ends);
        close_pair(pair);
    }
#else
    SKIP("Linux's options");
#endif
}

static int starved(netio_socket s)
{
    netio_socket fds[8];
    struct rlimit limit;
    size_t count = 8;
    char buf[16];
    int highest = dup(0), before;
    ptrdiff_t n;
    NEED(highest >= 0 && close(highest) == 0);
    before = test_descriptors();
    limit.rlim_cur = limit.rlim_max = (rlim_t)highest + 2; // room for two
    NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    fill_fds(fds, 8, -7);
    n = netio_recv_fds(s, buf, sizeof buf, fds, &count, 1000);
    NEED(n == NETIO_EMSGSIZE || n == NETIO_EMFILE);
    NEED(count <= 2);
    NEED(test_descriptors() == before + (int)count);
    for (size_t i = 0; i < count; i++) NEED(close(fds[i]) == 0);
    NEED(fds[count] == -7);
    // The next message is as good as ever.
    count = 8;
    n = netio_recv_fds(s, buf, sizeof buf, fds, &count, 1000);
    NEED(n == 4 && count == 1 && close(fds[0]) == 0);
    return 0;
}

TEST(fds, a_process_without_room_for_them_keeps_its_senses)
{
    netio_socket pair[2];
    pid_t pid;
    if (test_under("qemu") || test_under("valgrind")) SKIP("the limit would hit the emulator too");
    CHECK_OK(netio_pair(pair, NETIO_DGRAM));
    send_many(pair[0], pair[0], 5);
    send_many(pair[0], pair[0], 1);
    pid = start(starved, pair[1]);
    join(pid);
    close_pair(pair);
}

//================================================================================================
// Refusals and waiting
//================================================================================================

TEST(fds, bad_arguments)
{
    netio_socket pair[2], tcp[2], none = NETIO_INVALID_SOCKET, fds[2];
    int ends[2];
    size_t count = 2;
    char buf[8];
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    test_tcp_pair(&tcp[0], &tcp[1]);
    open_pipe(ends);
    CHECK_ERR(NETIO_EINVAL, netio_send_fds(pair[0], NULL, 1, ends, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_send_fds(pair[0], "x", 0, ends, 1, 0)); // bytes must carry them
    CHECK_ERR(NETIO_EINVAL, netio_send_fds(pair[0], "x", 1, NULL, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_send_fds(tcp[0], "x", 1, ends, 1, 0));
    CHECK_ERR(NETIO_EBADF, netio_send_fds(none, "x", 1, ends, 1, 0));
    CHECK_ERR(NETIO_ENOTSOCK, netio_send_fds(ends[0], "x", 1, ends, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_recv_fds(pair[0], NULL, 8, fds, &count, 0));
    CHECK_EQ(0, count);
    count = 2;
    CHECK_ERR(NETIO_EINVAL, netio_recv_fds(pair[0], buf, 0, fds, &count, 0));
    count = 2;
    CHECK_ERR(NETIO_EINVAL, netio_recv_fds(pair[0], buf, 8, NULL, &count, 0));
    CHECK_ERR(NETIO_EINVAL, netio_recv_fds(pair[0], buf, 8, fds, NULL, 0));
    count = 2;
    CHECK_ERR(NETIO_EINVAL, netio_recv_fds(tcp[0], buf, 8, fds, &count, 0));
    CHECK_EQ(0, count);
    count = 2;
    CHECK_ERR(NETIO_EBADF, netio_recv_fds(none, buf, 8, fds, &count, 0));
    CHECK_EQ(0, count);
    // One of them is none: nothing goes, not even the bytes.
    fds[0] = ends[0];
    fds[1] = -1;
    CHECK_ERR(NETIO_EBADF, netio_send_fds(pair[0], "x", 1, fds, 2, 0));
    CHECK_ERR(NETIO_EAGAIN, netio_recv(pair[1], buf, sizeof buf, 0));
    close_pipe(ends);
    close_pair(tcp);
    close_pair(pair);
}

TEST(fds, waiting_keeps_its_time)
{
    netio_socket pair[2], fds[2];
    static char big[1 << 16];
    size_t count = 2;
    uint64_t before;
    char buf[8];
    int ends[2], open_before;
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    open_pipe(ends);
    CHECK_ERR(NETIO_EAGAIN, netio_recv_fds(pair[1], buf, sizeof buf, fds, &count, 0));
    CHECK_EQ(0, count);
    count = 2;
    before = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv_fds(pair[1], buf, sizeof buf, fds, &count, 50));
    CHECK_BETWEEN(49, 3000, test_ms() - before);
    CHECK_EQ(0, count);
    while (netio_send(pair[0], big, sizeof big, 0) > 0) {}
    open_before = test_descriptors();
    CHECK_ERR(NETIO_EAGAIN, netio_send_fds(pair[0], big, sizeof big, &ends[1], 1, 0));
    before = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_send_fds(pair[0], big, sizeof big, &ends[1], 1, 50));
    CHECK_BETWEEN(49, 3000, test_ms() - before);
    CHECK_EQ(open_before, test_descriptors());
    close_pipe(ends);
    close_pair(pair);
}

TEST(fds, the_end_is_told_as_by_recv)
{
    for (int i = 0; i < 3; i += 2) {
        netio_socket pair[2], fds[2];
        int ends[2];
        size_t count = 2;
        char buf[8];
        if (!open_pair(pair, i)) continue;
        open_pipe(ends);
        CHECK_ERR(4, netio_send_fds(pair[0], "last", 4, &ends[1], 1, 1000));
        CHECK_OK(netio_close(&pair[0]));
        CHECK_ERR(4, netio_recv_fds(pair[1], buf, sizeof buf, fds, &count, 1000));
        CHECK_EQ(1, count);
        check_same(fds[0], ends);
        close_fds(fds, 1);
        count = 2;
        CHECK_ERR(NETIO_EOF, netio_recv_fds(pair[1], buf, sizeof buf, fds, &count, 1000));
        CHECK_EQ(0, count);
        CHECK_ERR(NETIO_EPIPE, netio_send_fds(pair[1], "x", 1, &ends[1], 1, 1000)); // no SIGPIPE
        close_pipe(ends);
        CHECK_OK(netio_close(&pair[1]));
    }
}

//================================================================================================
// Between processes
//================================================================================================

// Gets a listener, serves one client on it, and has the descriptors at the end that it had before.
static int serve_one(netio_socket s)
{
    netio_socket listener[2], client;
    netio_addr peer;
    size_t count = 2;
    char buf[16];
    int before = test_descriptors();
    NEED(netio_recv_fds(s, buf, sizeof buf, listener, &count, 5000) == 6);
    NEED(count == 1 && memcmp(buf, "listen", 6) == 0);
    NEED(test_descriptors() == before + 1);
    NEED(netio_accept(&client, listener[0], &peer, 5000) == 0);
    NEED(netio_recv_exact(client, buf, 4, NULL, 5000) == 0 && memcmp(buf, "ping", 4) == 0);
    NEED(netio_send_all(client, "pong", 4, NULL, 5000) == 0);
    NEED(netio_recv(client, buf, 1, 5000) == NETIO_EOF);
    NEED(netio_close(&client) == 0 && netio_close(&listener[0]) == 0);
    NEED(test_descriptors() == before);
    return 0;
}

TEST(fds, a_listener_passed_to_a_child_accepts_there)
{
    netio_socket listener, pair[2], client;
    char text[NETIO_ADDR_TEXT], buf[8];
    int before = test_descriptors();
    pid_t pid;
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    pid = start(serve_one, pair[1]);
    CHECK_OK(netio_close(&pair[1]));
    CHECK_ERR(6, netio_send_fds(pair[0], "listen", 6, &listener, 1, 1000));
    CHECK_OK(netio_close(&listener)); // the child's copy listens on
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_send_all(client, "ping", 4, NULL, 5000));
    CHECK_OK(netio_recv_exact(client, buf, 4, NULL, 10000));
    CHECK_MEM("pong", buf, 4);
    CHECK_OK(netio_close(&client));
    join(pid);
    CHECK_OK(netio_close(&pair[0]));
    CHECK_EQ(before, test_descriptors());
}

static int pass_connection(netio_socket s)
{
    char text[NETIO_ADDR_TEXT];
    netio_socket c;
    ptrdiff_t n = netio_recv(s, text, sizeof text - 1, 5000);
    NEED(n > 0);
    text[n] = 0;
    NEED(netio_connect(&c, text, NULL, 5000) == 0);
    NEED(netio_send_fds(s, "conn", 4, &c, 1, 5000) == 4);
    NEED(netio_close(&c) == 0); // in flight it lives on
    return 0;
}

TEST(fds, a_connection_passed_by_a_child_outlives_it)
{
    netio_socket listener, pair[2], mine, theirs;
    char text[NETIO_ADDR_TEXT], buf[8];
    size_t count = 1;
    pid_t pid;
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_pair(pair, NETIO_SEQPACKET) == 0 ? 0 : netio_pair(pair, NETIO_DGRAM));
    pid = start(pass_connection, pair[1]);
    CHECK_ERR(strlen(text), netio_send(pair[0], text, strlen(text), 1000));
    CHECK_OK(netio_accept(&theirs, listener, NULL, 5000));
    join(pid);
    CHECK_ERR(4, netio_recv_fds(pair[0], buf, sizeof buf, &mine, &count, 1000));
    CHECK_EQ(1, count);
    CHECK_OK(netio_send_all(mine, "still", 5, NULL, 1000));
    CHECK_OK(netio_recv_exact(theirs, buf, 5, NULL, 5000));
    CHECK_MEM("still", buf, 5);
    CHECK_ERR(NETIO_EAGAIN, netio_recv(mine, buf, 1, 0)); // it does not wait here either
    CHECK_OK(netio_close(&mine));
    CHECK_OK(netio_close(&theirs));
    CHECK_OK(netio_close(&listener));
    close_pair(pair);
}

//================================================================================================
// Who is there
//================================================================================================

static void check_me(netio_socket s)
{
    netio_cred cred;
    memset(&cred, 0x55, sizeof cred);
    CHECK_OK(netio_peer_cred(s, &cred));
    if (on_linux) CHECK_EQ(getpid(), cred.pid);
    else CHECK(cred.pid == getpid() || cred.pid == -1);
    CHECK_EQ(geteuid(), cred.uid);
    CHECK_EQ(getegid(), cred.gid);
}

TEST(fds, the_peer_of_a_pair_is_this_process)
{
    for (int i = 0; i < 3; i += 2) {
        netio_socket pair[2];
        if (!open_pair(pair, i)) continue;
        check_me(pair[0]);
        check_me(pair[1]);
        close_pair(pair);
    }
}

static const char *unix_text(const char *name)
{
    static char text[2][300];
    static unsigned next;
    char *out = text[next++ % 2];
    snprintf(out, 300, "unix:%s", test_path(name));
    return out;
}

static char cred_address[300];

static int connect_as_nobody(netio_socket s)
{
    netio_socket c;
    netio_cred cred;
    char buf[8];
    pid_t parent = getppid();
    NEED(netio_recv(s, buf, 1, 5000) == 1);
    if (geteuid() == 0) NEED(setgid(65533) == 0 && setuid(65534) == 0);
    NEED(netio_connect(&c, cred_address, NULL, 5000) == 0);
    NEED(netio_peer_cred(c, &cred) == 0); // who listens
    if (on_linux) NEED(cred.pid == parent);
    NEED(netio_send(s, "c", 1, 1000) == 1);
    NEED(netio_recv(c, buf, 1, 5000) == NETIO_EOF);
    return 0;
}

TEST(fds, the_process_and_user_that_connected_are_known)
{
    netio_socket listener, server, pair[2];
    netio_cred cred;
    netio_addr a;
    char dir[300];
    netio_socket_opts opts = {0};
    pid_t pid;
    opts.unix_mode = 0777;
    snprintf(cred_address, sizeof cred_address, "%s", unix_text("cred"));
    snprintf(dir, sizeof dir, "%s", test_path("cred"));
    *strrchr(dir, '/') = 0;
    chmod(dir, 0755); // for the child, who is nobody in particular
    CHECK_OK(netio_listen(&listener, cred_address, &opts));
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    pid = start(connect_as_nobody, pair[1]);
    CHECK_ERR(1, netio_send(pair[0], "g", 1, 1000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    CHECK_OK(netio_peer_cred(server, &cred));
    if (on_linux) CHECK_EQ(pid, cred.pid);
    CHECK_EQ(geteuid() == 0 ? 65534 : geteuid(), cred.uid);
    CHECK_EQ(geteuid() == 0 ? 65533 : getegid(), cred.gid);
    CHECK_ERR(1, netio_recv(pair[0], &(char){0}, 1, 5000));
    CHECK_OK(netio_close(&server));
    join(pid);
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&a));
    close_pair(pair);
}

TEST(fds, who_is_there_has_no_answer_elsewhere)
{
    netio_socket tcp[2], lone, none = NETIO_INVALID_SOCKET;
    netio_cred cred;
    memset(&cred, 0x55, sizeof cred);
    test_tcp_pair(&tcp[0], &tcp[1]);
    CHECK_ERR(NETIO_ENOTSUP, netio_peer_cred(tcp[0], &cred));
    CHECK_ERR(NETIO_EBADF, netio_peer_cred(none, &cred));
    CHECK_ERR(NETIO_EINVAL, netio_peer_cred(tcp[0], NULL));
    CHECK_OK(netio_open(&lone, AF_UNIX, SOCK_STREAM, 0));
    CHECK_ERR(NETIO_ENOTCONN, netio_peer_cred(lone, &cred));
    CHECK_EQ(0x5555555555555555, cred.pid); // not written on error
    CHECK_EQ(0x5555555555555555, cred.uid);
    CHECK_OK(netio_close(&lone));
    close_pair(tcp);
}

//================================================================================================
// Records
//================================================================================================

static unsigned char record[70000], got_record[70000];

TEST(fds, records_keep_their_boundaries_whatever_their_size)
{
    static const size_t sizes[] = {1, 4096, 65536, 1, 70000, 2};
    netio_socket pair[2];
    if (!open_pair(pair, 2)) SKIP("no records on this system, and netio says so");
    CHECK_OK(netio_set_option(pair[0], NETIO_OPT_SNDBUF, 1 << 18));
    test_fill(record, sizeof record, 5);
    for (int i = 0; i < 6; i++) CHECK_ERR(sizes[i], netio_send(pair[0], record, sizes[i], 1000));
    for (int i = 0; i < 6; i++) {
        memset(got_record, 0, sizeof got_record);
        CHECK_ERR(sizes[i], netio_recv(pair[1], got_record, sizeof got_record, 1000));
        CHECK_MEM(record, got_record, sizes[i]);
    }
    CHECK_ERR(NETIO_EAGAIN, netio_recv(pair[1], got_record, 1, 0));
    close_pair(pair);
}

TEST(fds, a_cut_record_says_so_and_its_rest_is_gone)
{
    netio_socket pair[2];
    netio_datagram m[2];
    if (!open_pair(pair, 2)) SKIP("no records on this system, and netio says so");
    test_fill(record, 100, 6);
    CHECK_ERR(100, netio_send(pair[0], record, 100, 1000));
    CHECK_ERR(100, netio_send(pair[0], record, 100, 1000));
    CHECK_ERR(3, netio_send(pair[0], "end", 3, 1000));
    CHECK_ERR(on_linux ? 100 : 41, netio_recvfrom(pair[1], got_record, 40, NULL, 1000));
    CHECK_MEM(record, got_record, 40);
    memset(m, 0, sizeof m);
    m[0].data = got_record;
    m[0].cap = 50;
    m[1].data = got_record + 100;
    m[1].cap = 50;
    CHECK_ERR(2, netio_recv_batch(pair[1], m, 2, 1000));
    CHECK(m[0].truncated);
    CHECK_EQ(50, m[0].len);
    CHECK_EQ(on_linux ? 100 : 51, m[0].full);
    CHECK_MEM(record, got_record, 50);
    CHECK(!m[1].truncated);
    CHECK_EQ(3, m[1].len);
    CHECK_MEM("end", got_record + 100, 3);
    close_pair(pair);
}

TEST(fds, an_empty_record_is_refused_by_every_way_to_send)
{
    netio_socket pair[2];
    netio_buf none = {NULL, 0};
    netio_datagram m[2];
    char c;
    if (!open_pair(pair, 2)) SKIP("no records on this system, and netio says so");
    memset(m, 0, sizeof m);
    m[0].data = &c;
    m[0].len = 1;
    CHECK_ERR(NETIO_EINVAL, netio_send(pair[0], "", 0, 0));
    CHECK_ERR(NETIO_EINVAL, netio_sendto(pair[0], "", 0, NULL, 0));
    CHECK_ERR(NETIO_EINVAL, netio_sendv(pair[0], &none, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_send_batch(pair[0], m, 2, 0)); // the second; and not the first
    CHECK_ERR(NETIO_EAGAIN, netio_recv(pair[1], &c, 1, 0));
    close_pair(pair);
}

TEST(fds, a_batch_of_records_ends_where_they_end)
{
    netio_socket pair[2];
    netio_datagram m[80];
    static char bytes[80][8];
    size_t got = 0;
    if (!open_pair(pair, 2)) SKIP("no records on this system, and netio says so");
    memset(m, 0, sizeof m);
    CHECK_OK(netio_set_option(pair[0], NETIO_OPT_SNDBUF, 1 << 18));
    for (int i = 0; i < 70; i++) {
        m[i].data = bytes[i];
        m[i].len = (size_t)snprintf(bytes[i], sizeof bytes[i], "%d", i);
    }
    CHECK_ERR(70, netio_send_batch(pair[0], m, 70, 1000));
    CHECK_OK(netio_close(&pair[0]));
    memset(bytes, 0, sizeof bytes);
    for (int i = 0; i < 80; i++) {
        memset(&m[i], 0, sizeof m[i]);
        m[i].data = bytes[i];
        m[i].cap = sizeof bytes[i];
    }
    while (got < 70) {
        ptrdiff_t n = netio_recv_batch(pair[1], m + got, 80 - got, 1000);
        CHECK(n > 0);
        got += (size_t)n;
    }
    CHECK_EQ(70, got); // the end is no record
    for (int i = 0; i < 70; i++) {
        char want[8];
        snprintf(want, sizeof want, "%d", i);
        CHECK_STR(want, bytes[i]);
    }
    CHECK_ERR(NETIO_EOF, netio_recv_batch(pair[1], m, 80, 1000));
    CHECK_ERR(NETIO_EOF, netio_recv_batch(pair[1], m, 80, 0)); // as often as asked
    CHECK_OK(netio_close(&pair[1]));
}

//================================================================================================
// Datagrams by path and by abstract name
//================================================================================================

static void exchange(const char *a_text, const char *b_text)
{
    netio_socket a, b, unnamed;
    netio_addr at_a, at_b;
    netio_datagram m[5];
    char bytes[5][16], text[NETIO_ADDR_TEXT];
    ptrdiff_t n = 0;
    CHECK_OK(netio_bind(&a, a_text, NULL));
    CHECK_OK(netio_bind(&b, b_text, NULL));
    CHECK_OK(netio_local_addr(a, &at_a));
    CHECK_OK(netio_local_addr(b, &at_b));
    memset(m, 0, sizeof m);
    for (int i = 0; i < 5; i++) {
        m[i].data = bytes[i];
        m[i].len = (size_t)snprintf(bytes[i], sizeof bytes[i], "letter %d", i);
        m[i].peer = at_b;
    }
    CHECK_ERR(5, netio_send_batch(a, m, 5, 1000));
    memset(bytes, 0, sizeof bytes);
    memset(m, 0xDD, sizeof m);
    for (int i = 0; i < 5; i++) m[i].data = bytes[i], m[i].cap = sizeof bytes[i];
    for (size_t got = 0; got < 5; got += (size_t)n) {
        n = netio_recv_batch(b, m + got, 5 - got, 1000);
        CHECK(n > 0);
    }
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(8, m[i].len);
        CHECK(netio_addr_equal(&at_a, &m[i].peer));
        CHECK(netio_addr_format(&m[i].peer, text, sizeof text) > 0);
        CHECK_STR(a_text, text);
        CHECK_EQ(0, m[i].local.len);
        CHECK_EQ(0, m[i].ifindex);
        CHECK_EQ(0, m[i].time_ns);
    }
    CHECK_ERR(5, netio_send_batch(b, m, 5, 1000)); // as they are, back to their sender
    for (int i = 0; i < 5; i++) CHECK_ERR(8, netio_recvfrom(a, text, 16, &at_b, 1000));
    CHECK(netio_addr_format(&at_b, text, sizeof text) > 0);
    CHECK_STR(b_text, text);
    // Who has no name shows none.
    CHECK_OK(netio_open(&unnamed, AF_UNIX, SOCK_DGRAM, 0));
    CHECK_ERR(2, netio_sendto(unnamed, "hi", 2, &at_b, 1000));
    CHECK_ERR(1, netio_recv_batch(b, m, 5, 1000));
    CHECK_EQ(0, netio_addr_family(&m[0].peer));
    CHECK_OK(netio_close(&unnamed));
    // Who is gone refuses; who was never there is not found.
    CHECK_OK(netio_local_addr(b, &at_b));
    CHECK_OK(netio_close(&b));
    m[0].peer = at_b;
    CHECK_ERR(NETIO_ECONNREFUSED, netio_sendto(a, "hi", 2, &at_b, 100));
    CHECK_ERR(NETIO_ECONNREFUSED, netio_send_batch(a, m, 1, 100));
    CHECK_OK(netio_close(&a));
}

TEST(fds, datagrams_between_two_paths)
{
    char a_text[300];
    netio_addr a, b;
    netio_socket s;
    snprintf(a_text, sizeof a_text, "%s", unix_text("dg-a"));
    exchange(a_text, unix_text("dg-b"));
    CHECK_OK(netio_addr_parse(&a, a_text, strlen(a_text)));
    CHECK_OK(netio_unix_unlink(&a));
    CHECK_OK(netio_addr_parse(&b, unix_text("dg-b"), strlen(unix_text("dg-b"))));
    CHECK_OK(netio_unix_unlink(&b));
    CHECK_OK(netio_open(&s, AF_UNIX, SOCK_DGRAM, 0));
    CHECK_ERR(NETIO_ENOENT, netio_sendto(s, "hi", 2, &b, 100));
    CHECK_OK(netio_close(&s));
}

TEST(fds, datagrams_between_two_abstract_names)
{
    char a_text[64], b_text[64];
    if (!on_linux) SKIP("abstract names are Linux's");
    snprintf(a_text, sizeof a_text, "unix:@netio-test-%d-a", (int)getpid());
    snprintf(b_text, sizeof b_text, "unix:@netio-test-%d-b", (int)getpid());
    exchange(a_text, b_text);
}

TEST(fds, descriptors_travel_with_datagrams_to_a_path)
{
    netio_socket a, b, fd;
    netio_addr at_b;
    int ends[2];
    size_t count = 1;
    char buf[8], text[300];
    netio_socket_opts opts = {0};
    opts.type = NETIO_DGRAM;
    snprintf(text, sizeof text, "%s", unix_text("dg-fd"));
    CHECK_OK(netio_bind(&b, text, NULL));
    CHECK_OK(netio_local_addr(b, &at_b));
    CHECK_OK(netio_connect(&a, text, &opts, 1000));
    open_pipe(ends);
    CHECK_ERR(4, netio_send_fds(a, "take", 4, &ends[1], 1, 1000));
    CHECK_ERR(4, netio_recv_fds(b, buf, sizeof buf, &fd, &count, 1000));
    CHECK_EQ(1, count);
    check_same(fd, ends);
    close_fds(&fd, 1);
    close_pipe(ends);
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_close(&b));
    CHECK_OK(netio_unix_unlink(&at_b));
}

//================================================================================================

// clang-format off
TEST_MAIN("fds",
    T(fds, one_arrives_with_its_bytes_and_closes_on_exec),
    T(fds, as_many_as_allowed_and_in_order),
    T(fds, more_than_allowed_are_not_sent),
    T(fds, surplus_ones_are_closed_and_named),
    T(fds, a_flood_of_them_is_bounded),
    T(fds, bytes_without_any_are_just_bytes),
    T(fds, messages_on_a_stream_keep_their_own),
    T(fds, they_come_with_the_first_part_of_a_message),
    T(fds, unexpected_ones_are_closed_by_every_way_to_receive),
    T(fds, a_batch_with_descriptors_inside_leaks_none),
    T(fds, peeking_leaves_them_for_who_asks),
    T(fds, other_things_that_the_kernel_adds_take_no_room_and_leak_nothing),
    T(fds, a_process_without_room_for_them_keeps_its_senses),
    T(fds, bad_arguments),
    T(fds, waiting_keeps_its_time),
    T(fds, the_end_is_told_as_by_recv),
    T(fds, a_listener_passed_to_a_child_accepts_there),
    T(fds, a_connection_passed_by_a_child_outlives_it),
    T(fds, the_peer_of_a_pair_is_this_process),
    T(fds, the_process_and_user_that_connected_are_known),
    T(fds, who_is_there_has_no_answer_elsewhere),
    T(fds, records_keep_their_boundaries_whatever_their_size),
    T(fds, a_cut_record_says_so_and_its_rest_is_gone),
    T(fds, an_empty_record_is_refused_by_every_way_to_send),
    T(fds, a_batch_of_records_ends_where_they_end),
    T(fds, datagrams_between_two_paths),
    T(fds, datagrams_between_two_abstract_names),
    T(fds, descriptors_travel_with_datagrams_to_a_path))
#endif
