// Whole stories over public calls, in which the n-th system call goes wrong, for every n: it fails
// with each error that it may have, is interrupted, or does a part of its work. The linker puts the
// functions below between the library and the C library (Linux only; lists for the build):
//
// WRAP: accept accept4 bind close connect dup dup3 epoll_create1 epoll_ctl epoll_wait eventfd fcntl
// WRAP: fstat getpeername getsockname getsockopt ioctl listen lstat pipe2 poll pread pthread_create
// WRAP: read recv recvfrom recvmsg select send sendfile sendmsg sendto setsockopt shutdown socket
// WRAP: socketpair unlink write
//
// What must hold, whatever goes wrong: the call that was hit returns in time, with success or an
// error that has a name; the bytes are right as far as they came; no descriptor and no memory stays
// behind; netio_os_error() has the error of the system call, not that of the clean-up. A signal, a
// short count or a wrong promise of readiness (EAGAIN) must not show at all.
#define _GNU_SOURCE
#include "fault.h"

//================================================================================================
// Stories without a poller
//================================================================================================

static unsigned char sent[20000], got[20000];

static void shut(netio_socket *s)
{
    if (*s != NETIO_INVALID_SOCKET) DO(netio_close(s));
    if (*s != NETIO_INVALID_SOCKET && !told.broken_line) told.broken_line = __LINE__;
}

// Both directions, every way to send and to receive, and an end that loses nothing. `c` and `s`
// are closed when it succeeds.
static void exchange(netio_socket *c, netio_socket *s)
{
    // Nobody reads meanwhile, and 600 pieces of a byte do not fit into a Unix socket.
    const size_t len = f.storm ? 90 : 600;
    netio_buf out[3] = {{sent, 1}, {sent + 1, 40}, {sent + 41, len - 41}};
    netio_room in[2] = {{got, 7}, {got + 7, len - 7}};
    size_t done = 0;
    ptrdiff_t n;

    TRY(netio_send_all(*c, sent, len, &done, 2000));
    MUST(done == len);
    TRY(netio_peek(*s, got, len, 2000));
    memset(got, 0, len);
    TRY(netio_recv_exact(*s, got, len, &done, 2000));
    MUST(done == len && memcmp(sent, got, len) == 0);

    TRY(netio_sendv_all(*s, out, 3, &done, 2000));
    MUST(done == len);
    memset(got, 0, len);
    TRY(n = netio_recvv(*c, in, 2, 2000));
    MUST(n > 0);
    TRY(netio_recv_exact(*c, got + n, len - (size_t)n, NULL, 2000));
    MUST(memcmp(sent, got, len) == 0);

    TRY(n = netio_send(*c, sent, 10, 2000));
    MUST(n > 0);
    TRY(netio_shutdown(*c, NETIO_SHUT_WRITE));
    TRY(netio_recv_exact(*s, got, (size_t)n, NULL, 2000));
    n = netio_recv(*s, got, 1, 2000); // an end is what should come here, not a failure
    if (n != NETIO_EOF) (void)tell(n, __LINE__);
    MUST(n < 0);
    shut(s);
    if (*c != NETIO_INVALID_SOCKET) TRY(netio_close_gracefully(c, 1000, 2000));
out:
    armed = false;
}

static void tcp_story(void)
{
    netio_socket listener = NETIO_INVALID_SOCKET, c = listener, s = listener;
    netio_addr a[2], peer;
    char text[NETIO_ADDR_TEXT];
    int value = 0;
    TRY(netio_listen(&listener, "127.0.0.1:0", NULL));
    TRY(netio_local_addr(listener, &a[0]));
    MUST(netio_addr_format(&a[0], text, sizeof text) > 0);
    MUST(DO(netio_resolve(text, a, 2, NULL, 2000)) == 1);
    TRY(netio_connect(&c, text, NULL, 2000));
    TRY(netio_accept(&s, listener, &peer, 2000));
    TRY(netio_peer_addr(s, &a[1]));
    MUST(netio_addr_equal(&a[1], &peer));
    TRY(netio_set_option(c, NETIO_OPT_NODELAY, 1));
    TRY(netio_get_option(c, NETIO_OPT_NODELAY, &value));
    MUST(value == 1);
    TRY(netio_set_inheritable(s, true));
    TRY(netio_set_inheritable(s, false));
    MUST(DO(netio_wait(c, NETIO_EV_WRITE, 2000)) != 0);
    exchange(&c, &s);
out:
    armed = false;
    shut(&s);
    shut(&c);
    shut(&listener);
}

static void tcp6_story(void)
{
    netio_socket listener = NETIO_INVALID_SOCKET, c = listener, s = listener;
    netio_addr a;
    char text[NETIO_ADDR_TEXT], port[16];
    TRY(netio_listen(&listener, ":0", NULL)); // dual: the client comes over either family
    TRY(netio_local_addr(listener, &a));
    snprintf(port, sizeof port, ":%u", (unsigned)netio_addr_port(&a));
    TRY(netio_connect(&c, port, NULL, 2000));
    TRY(netio_accept(&s, listener, &a, 2000));
    MUST(netio_addr_format(&a, text, sizeof text) > 0);
    exchange(&c, &s);
out:
    armed = false;
    shut(&s);
    shut(&c);
    shut(&listener);
}

// Two addresses: the first refuses, the second is it.
static void fallback_story(void)
{
    netio_socket listener = NETIO_INVALID_SOCKET, c = listener, s = listener;
    netio_socket_opts opts = {0};
    netio_error errors[3];
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    const char *fallback[1] = {text};
    TRY(netio_listen(&listener, "127.0.0.1:0", NULL));
    TRY(netio_local_addr(listener, &a));
    MUST(netio_addr_format(&a, text, sizeof text) > 0);
    opts.fallback = fallback;
    opts.fallback_count = 1;
    opts.errors = errors;
    opts.error_cap = 3;
    opts.stagger_ms = 20;
    TRY(netio_connect(&c, "127.0.0.2:1", &opts, 2000));
    TRY(netio_accept(&s, listener, NULL, 2000));
    exchange(&c, &s);
out:
    armed = false;
    shut(&s);
    shut(&c);
    shut(&listener);
}

static void by_hand_story(void)
{
    netio_socket listener = NETIO_INVALID_SOCKET, c = listener, s = listener;
    netio_addr a;
    TRY(netio_listen(&listener, "127.0.0.1:0", NULL));
    TRY(netio_local_addr(listener, &a));
    ptrdiff_t err = DO(netio_connect_start(&c, &a, NULL));
    if (err == NETIO_EINPROGRESS) told.err = 0;
    else if (err < 0) goto out;
    TRY(netio_connect_finish(c, 2000));
    TRY(netio_accept(&s, listener, NULL, 2000));
    unsigned found = 0;
    TRY(netio_adopt(s, &found));
    TRY(netio_release(s, found));
    exchange(&c, &s);
out:
    armed = false;
    shut(&s);
    shut(&c);
    shut(&listener);
}

static void abort_story(void)
{
    netio_socket pair[2] = {NETIO_INVALID_SOCKET, NETIO_INVALID_SOCKET};
    netio_socket listener = NETIO_INVALID_SOCKET;
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    TRY(netio_listen(&listener, "127.0.0.1:0", NULL));
    TRY(netio_local_addr(listener, &a));
    MUST(netio_addr_format(&a, text, sizeof text) > 0);
    TRY(netio_connect(&pair[0], text, NULL, 2000));
    TRY(netio_accept(&pair[1], listener, NULL, 2000));
    TRY(netio_abort(&pair[0]));
out:
    armed = false;
    shut(&pair[0]);
    shut(&pair[1]);
    shut(&listener);
}

static void udp_story(void)
{
    netio_socket a = NETIO_INVALID_SOCKET, b = a, c = a;
    netio_socket_opts opts = {0};
    netio_addr to_a, to_b, from;
    netio_buf request = {"ping", 4};
    char text[NETIO_ADDR_TEXT], buf[64];
    netio_room answer = {buf, sizeof buf};
    ptrdiff_t n;
    TRY(netio_bind(&a, "127.0.0.1:0", NULL));
    TRY(netio_bind(&b, "127.0.0.1:0", NULL));
    TRY(netio_local_addr(a, &to_a));
    TRY(netio_local_addr(b, &to_b));

    TRY(n = netio_sendto(a, "hello", 5, &to_b, 2000));
    MUST(n == 5);
    TRY(n = netio_recvfrom(b, buf, sizeof buf, &from, 2000));
    MUST(n == 5 && memcmp(buf, "hello", 5) == 0 && netio_addr_equal(&from, &to_a));
    TRY(n = netio_sendto(a, NULL, 0, &to_b, 2000));
    TRY(n = netio_recvfrom(b, buf, sizeof buf, &from, 2000));
    MUST(n == 0);
    TRY(n = netio_sendto(a, "hello", 5, &to_b, 2000));
    TRY(n = netio_recvfrom(b, buf, 2, &from, 2000)); // cut
    MUST(n == 5 && memcmp(buf, "he", 2) == 0);

    TRY(n = netio_sendto(b, "pong", 4, &to_a, 2000)); // the answer is there before the question
    TRY(n = netio_query(a, &to_b, request, answer, NULL, NULL, 2, 500));
    MUST(n == 4 && memcmp(buf, "pong", 4) == 0);

    opts.type = NETIO_DGRAM;
    MUST(netio_addr_format(&to_a, text, sizeof text) > 0);
    TRY(netio_connect(&c, text, &opts, 2000));
    TRY(n = netio_send(c, "one", 3, 2000));
    MUST(n == 3);
    TRY(n = netio_recvfrom(a, buf, sizeof buf, &from, 2000));
    MUST(n == 3);
    TRY(n = netio_sendto(a, "two", 3, &from, 2000));
    TRY(n = netio_recv(c, buf, sizeof buf, 2000));
    MUST(n == 3 && memcmp(buf, "two", 3) == 0);
out:
    armed = false;
    shut(&a);
    shut(&b);
    shut(&c);
}

static char unix_path[400];

static void unix_story(void)
{
    netio_socket listener = NETIO_INVALID_SOCKET, c = listener, s = listener;
    netio_addr a;
    TRY(netio_listen(&listener, unix_path, NULL));
    TRY(netio_connect(&c, unix_path, NULL, 2000));
    TRY(netio_accept(&s, listener, &a, 2000));
    exchange(&c, &s);
    shut(&listener);
    MUST(netio_addr_parse(&a, unix_path, strlen(unix_path)) == 0);
    TRY(netio_unix_unlink(&a));
out:
    armed = false;
    shut(&s);
    shut(&c);
    shut(&listener);
    unlink(unix_path + 5);
}

// The file of a server that is gone is in the way.
static void unix_leftover_story(void)
{
    netio_socket listener = NETIO_INVALID_SOCKET, c = listener, s = listener;
    TRY(netio_listen(&listener, unix_path, NULL));
    shut(&listener);
    TRY(netio_listen(&listener, unix_path, NULL));
    TRY(netio_connect(&c, unix_path, NULL, 2000));
    TRY(netio_accept(&s, listener, NULL, 2000));
out:
    armed = false;
    shut(&s);
    shut(&c);
    shut(&listener);
    unlink(unix_path + 5);
}

static int pair_type;

static void pair_story(void)
{
    netio_socket s[2] = {NETIO_INVALID_SOCKET, NETIO_INVALID_SOCKET};
    netio_buf out[2] = {{sent, 10}, {sent + 10, 20}};
    ptrdiff_t n;
    TRY(netio_pair(s, pair_type));
    if (pair_type == NETIO_STREAM) {
        exchange(&s[0], &s[1]);
        goto out;
    }
    TRY(n = netio_send(s[0], sent, 100, 2000));
    MUST(n == 100);
    TRY(n = netio_recv(s[1], got, sizeof got, 2000));
    MUST(n == 100 && memcmp(sent, got, 100) == 0);
    TRY(n = netio_sendv(s[1], out, 2, 2000));
    MUST(n == 30);
    TRY(n = netio_recv(s[0], got, sizeof got, 2000));
    MUST(n == 30 && memcmp(sent, got, 30) == 0);
out:
    armed = false;
    shut(&s[0]);
    shut(&s[1]);
}

static int file;

static void sendfile_story(void)
{
    netio_socket s[2] = {NETIO_INVALID_SOCKET, NETIO_INVALID_SOCKET};
    uint64_t done = 0, len = f.storm ? 90 : 15000;
    TRY(netio_pair(s, NETIO_STREAM));
    TRY(netio_sendfile(s[0], file, 7, len, &done, 2000));
    MUST(done == len);
    memset(got, 0, sizeof got);
    TRY(netio_recv_exact(s[1], got, (size_t)len, NULL, 2000));
    MUST(memcmp(sent + 7, got, (size_t)len) == 0);
out:
    armed = false;
    shut(&s[0]);
    shut(&s[1]);
}

// A file without positions.
static void sendfile_pipe_story(void)
{
    netio_socket s[2] = {NETIO_INVALID_SOCKET, NETIO_INVALID_SOCKET};
    const size_t len = f.storm ? 90 : 4000;
    uint64_t done = 0;
    int fd[2];
    if (pipe(fd) != 0) {
        told.broken_line = __LINE__;
        return;
    }
    MUST(__real_write(fd[1], sent, len) == (ssize_t)len);
    TRY(netio_pair(s, NETIO_STREAM));
    TRY(netio_sendfile(s[0], fd[0], 0, len, &done, 2000));
    MUST(done == len);
    memset(got, 0, sizeof got);
    TRY(netio_recv_exact(s[1], got, len, NULL, 2000));
    MUST(memcmp(sent, got, len) == 0);
out:
    armed = false;
    shut(&s[0]);
    shut(&s[1]);
    __real_close(fd[0]);
    __real_close(fd[1]);
}

static void options_story(void)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    int value = 0;
    char text[64];
    TRY(netio_open(&s, AF_INET, SOCK_STREAM, 0));
    TRY(netio_set_keepalive(s, 30, 5, 3));
    TRY(netio_get_option(s, NETIO_OPT_KEEPCNT, &value));
    MUST(value == 3);
    TRY(netio_set_option(s, NETIO_OPT_LINGER, -1));
    TRY(netio_get_option(s, NETIO_OPT_ERROR, &value));
    MUST(value == 0);
    TRY(netio_get_option(s, NETIO_OPT_TYPE, &value));
    MUST(value == NETIO_STREAM);
    TRY(netio_set_option(s, NETIO_OPT_TTL, 9));
    TRY(netio_get_option_text(s, NETIO_OPT_CONGESTION, text, sizeof text));
    DO(netio_option_supported(NETIO_OPT_KEEPIDLE));
out:
    armed = false;
    shut(&s);
}

TEST(fault, tcp_over_ipv4) { every_call(tcp_story); }
TEST(fault, tcp_dual_stack) { every_call(tcp6_story); }
TEST(fault, tcp_second_address) { every_call(fallback_story); }
TEST(fault, tcp_connect_by_hand) { every_call(by_hand_story); }
TEST(fault, tcp_abort) { every_call(abort_story); }
TEST(fault, udp) { every_call(udp_story); }
TEST(fault, options) { every_call(options_story); }

TEST(fault, unix_stream)
{
    snprintf(unix_path, sizeof unix_path, "unix:%s", test_path("fault.sock"));
    every_call(unix_story);
}

TEST(fault, unix_socket_file_left_over)
{
    snprintf(unix_path, sizeof unix_path, "unix:%s", test_path("left.sock"));
    every_call(unix_leftover_story);
}

TEST(fault, pairs)
{
    for (pair_type = NETIO_STREAM; pair_type <= NETIO_SEQPACKET; pair_type++)
        every_call(pair_story);
}

TEST(fault, sendfile)
{
    file = open(test_path("file"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(file >= 0);
    CHECK(__real_write(file, sent, sizeof sent) == (ssize_t)sizeof sent);
    every_call(sendfile_story);
    CHECK(lseek(file, 0, SEEK_CUR) == (off_t)sizeof sent); // its own position did not move
    CHECK(__real_close(file) == 0);
}

TEST(fault, sendfile_from_a_pipe) { every_call(sendfile_pipe_story); }

//================================================================================================
// Pollers
//================================================================================================

static int backend;

// One event, past wakes that may still be in the poller.
static ptrdiff_t next_event(netio_poller *p, netio_event *e)
{
    ptrdiff_t n = 0;
    for (int i = 0; i < 3 && n == 0; i++) {
        n = DO(netio_poller_wait(p, e, 4, 1000));
        if (n < 0) n = DO(netio_poller_wait(p, e, 4, 1000));
    }
    return n;
}

static void poller_story(void)
{
    netio_socket s[2] = {NETIO_INVALID_SOCKET, NETIO_INVALID_SOCKET}, u = s[0];
    netio_poller *p = NULL;
    netio_event e[4];
    netio_addr self;
    char user[4], c;
    ptrdiff_t n;
    TRY(netio_pair(s, NETIO_STREAM));
    TRY(netio_bind(&u, "127.0.0.1:0", NULL));
    TRY(netio_local_addr(u, &self));

    TRY(netio_poller_open(&p, backend));
    TWICE(netio_poller_add(p, s[0], NETIO_EV_READ, &user[0]));
    TWICE(netio_poller_add(p, s[1], 0, &user[1]));
    TWICE(netio_poller_add(p, u, NETIO_EV_READ | NETIO_EV_ONESHOT, &user[2]));
    MUST(netio_poller_count(p) == 3);

    TRY(netio_send(s[1], "x", 1, 2000));
    n = next_event(p, e);
    MUST(n == 1 && e[0].user == &user[0] && e[0].socket == s[0] && e[0].events & NETIO_EV_READ);
    TRY(netio_recv(s[0], &c, 1, 2000));

    TWICE(netio_poller_modify(p, s[1], NETIO_EV_WRITE, &user[3]));
    n = next_event(p, e);
    MUST(n == 1 && e[0].user == &user[3] && e[0].socket == s[1]);
    TWICE(netio_poller_modify(p, s[1], 0, &user[3]));

    TRY(netio_sendto(u, "y", 1, &self, 2000));
    n = next_event(p, e);
    MUST(n == 1 && e[0].user == &user[2]);
    uint64_t start = test_ms();
    TWICE(netio_poller_wait(p, e, 4, 2)); // fired: silent until it is armed again
    if (!f.hit || f.err == EINTR) MUST(test_ms() - start >= 2);
    TWICE(netio_poller_modify(p, u, NETIO_EV_READ | NETIO_EV_ONESHOT, &user[1]));
    n = next_event(p, e);
    MUST(n == 1 && e[0].user == &user[1] && e[0].socket == u);

    TWICE(netio_poller_wake(p));
    TWICE(n = netio_poller_wait(p, e, 4, 1000));
    MUST(n == 0);
    TWICE(netio_poller_remove(p, s[0]));
    MUST(netio_poller_count(p) == 2);
    TRY(netio_send(s[1], "z", 1, 2000));
    TWICE(n = netio_poller_wait(p, e, 4, 1));
    MUST(n == 0);
    if (DO(netio_poller_drop(p, &u)) < 0) MUST(f.call == C_CLOSE || f.call == C_EPOLL_CTL);
    MUST(u == NETIO_INVALID_SOCKET && netio_poller_count(p) == 1);
out:
    armed = true;
    netio_poller_close(p);
    armed = false;
    shut(&s[0]);
    shut(&s[1]);
    shut(&u);
}

// Stale registrations, and an epoll that has to be made anew because a duplicate holds on.
static void stale_story(void)
{
    netio_socket a = NETIO_INVALID_SOCKET, b = a, number;
    netio_poller *p = NULL;
    netio_event e[4];
    netio_addr self;
    char user[2];
    int duplicate = -1;
    ptrdiff_t n;
    TRY(netio_bind(&a, "127.0.0.1:0", NULL));
    TRY(netio_bind(&b, "127.0.0.1:0", NULL));
    TRY(netio_local_addr(a, &self));
    TRY(netio_poller_open(&p, backend));
    TWICE(netio_poller_add(p, a, NETIO_EV_READ, &user[0]));
    TWICE(netio_poller_add(p, b, NETIO_EV_READ, &user[1]));
    duplicate = __real_dup(a);
    MUST(duplicate >= 0);
    TRY(netio_sendto(b, "x", 1, &self, 2000));
    number = a;
    shut(&a);
    DO(netio_poller_remove(p, number));
    for (int i = 0; i < 3; i++) {
        DO(n = netio_poller_wait(p, e, 4, 1));
        MUST(n <= 0);
    }
    told.err = 0; // whatever that said
    TRY(netio_local_addr(b, &self));
    TRY(netio_sendto(b, "y", 1, &self, 2000));
    n = next_event(p, e);
    MUST(n == 1 && e[0].user == &user[1] && e[0].socket == b);
out:
    armed = true;
    netio_poller_close(p);
    armed = false;
    if (duplicate >= 0) __real_close(duplicate);
    shut(&a);
    shut(&b);
}

// Regular files are ready without the kernel's help.
static void file_story(void)
{
    netio_poller *p = NULL;
    netio_event e[4];
    char user[2];
    ptrdiff_t n;
    TRY(netio_poller_open(&p, backend));
    TWICE(netio_poller_add(p, file, NETIO_EV_READ, &user[0]));
    n = next_event(p, e);
    MUST(n == 1 && e[0].user == &user[0] && e[0].socket == file);
    TWICE(netio_poller_modify(p, file, NETIO_EV_READ | NETIO_EV_ONESHOT, &user[1]));
    n = next_event(p, e);
    MUST(n == 1 && e[0].user == &user[1]);
    TWICE(netio_poller_remove(p, file));
out:
    armed = true;
    netio_poller_close(p);
    armed = false;
}

static void growth_story(void)
{
    enum { COUNT = 40 };
    static netio_socket s[COUNT];
    netio_poller *p = NULL;
    netio_event e[COUNT];
    ptrdiff_t n;
    for (int i = 0; i < COUNT; i++) s[i] = NETIO_INVALID_SOCKET;
    for (int i = 0; i < COUNT; i++) MUST(netio_bind(&s[i], "127.0.0.1:0", NULL) == 0);
    TRY(netio_poller_open(&p, backend));
    for (int i = 0; i < COUNT; i++) TWICE(netio_poller_add(p, s[i], NETIO_EV_WRITE, &s[i]));
    TWICE(n = netio_poller_wait(p, e, COUNT, 1000));
    MUST(n == COUNT);
out:
    armed = false;
    netio_poller_close(p);
    for (int i = 0; i < COUNT; i++) shut(&s[i]);
}

static void over_backends(void (*each)(story), story run)
{
    static const int all[] = {NETIO_BACKEND_SELECT, NETIO_BACKEND_POLL, NETIO_BACKEND_EPOLL};
    for (size_t i = 0; i < 3; i++) {
        backend = all[i];
        if (!netio_backend_available(backend)) continue;
        printf("    %s:\n", netio_backend_name(backend));
        each(run);
    }
}

TEST(fault, poller) { over_backends(every_call, poller_story); }
TEST(fault, poller_stale) { over_backends(every_call, stale_story); }
TEST(fault, poller_allocations) { over_backends(every_allocation, growth_story); }

TEST(fault, poller_regular_file)
{
    file = open(test_path("file"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(file >= 0);
    over_backends(every_call, file_story);
    CHECK(__real_close(file) == 0);
}

// Some sandboxes and emulators have no epoll, whatever the headers promise.
TEST(fault, auto_does_without_epoll)
{
    netio_poller *p = NULL;
    if (!netio_backend_available(NETIO_BACKEND_EPOLL)) SKIP("no epoll here");
    for (int i = 0; i < 2; i++) {
        memset(&f, 0, sizeof f);
        f.storm = NO_EPOLL;
        armed = true;
        int err = netio_poller_open(&p, i ? NETIO_BACKEND_EPOLL : NETIO_BACKEND_AUTO);
        armed = false;
        CHECK_ERR(i ? NETIO_ENOTSUP : 0, err);
        if (i) break;
        CHECK_EQ(NETIO_BACKEND_POLL, netio_poller_backend(p));
        netio_poller_close(p);
    }
}

//================================================================================================
// Deadlines, when a call never succeeds
//================================================================================================

// A signal at every wait: none gets anywhere, and the limit holds all the same.
TEST(fault, deadline_holds_though_every_wait_is_interrupted)
{
    netio_socket s, peer, listener;
    netio_addr a;
    char c;
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    memset(&f, 0, sizeof f);
    f.storm = ALWAYS_EINTR;
    for (int what = 0; what < 5; what++) {
        ptrdiff_t r = 0;
        uint64_t start = test_ms();
        armed = true;
        if (what == 0) r = netio_recv(s, &c, 1, 40);
        if (what == 1) r = netio_recvfrom(s, &c, 1, &a, 40);
        if (what == 2) r = netio_wait(s, NETIO_EV_READ, 40);
        if (what == 3) r = netio_accept(&peer, listener, NULL, 40);
        if (what == 4) r = netio_recv_exact(s, &c, 1, NULL, 40);
        armed = false;
        CHECK_ERR(NETIO_ETIMEDOUT, r);
        CHECK_BETWEEN(40, 1000, test_ms() - start);
    }
    for (int b = NETIO_BACKEND_SELECT; b <= NETIO_BACKEND_KQUEUE; b++) {
        netio_poller *p;
        netio_event e[1];
        if (!netio_backend_available(b)) continue;
        CHECK_OK(netio_poller_open(&p, b));
        CHECK_OK(netio_poller_add(p, s, NETIO_EV_READ, NULL));
        uint64_t start = test_ms();
        armed = true;
        ptrdiff_t n = netio_poller_wait(p, e, 1, 40);
        armed = false;
        CHECK_EQ(0, n);
        CHECK_BETWEEN(40, 1000, test_ms() - start);
        netio_poller_close(p);
    }
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&listener));
}

// Readiness that is never true: the wait says go, the call says later.
TEST(fault, deadline_holds_though_readiness_lies)
{
    netio_socket s[2];
    size_t done = 99;
    char c;
    CHECK_OK(netio_pair(s, NETIO_STREAM));
    CHECK_ERR(1, netio_send(s[1], "x", 1, 1000));
    memset(&f, 0, sizeof f);
    f.storm = ALWAYS_EAGAIN;
    for (int what = 0; what < 4; what++) {
        ptrdiff_t r = 0;
        uint64_t start = test_ms();
        armed = true;
        if (what == 0) r = netio_recv(s[0], &c, 1, 40);
        if (what == 1) r = netio_recv_exact(s[0], &c, 1, &done, 40);
        if (what == 2) r = netio_send(s[0], "y", 1, 40);
        if (what == 3) r = netio_send_all(s[0], "y", 1, &done, 40);
        armed = false;
        CHECK_ERR(NETIO_ETIMEDOUT, r);
        CHECK_BETWEEN(40, 1000, test_ms() - start);
        if (what & 1) CHECK_EQ(0, done);
    }
    CHECK_OK(netio_close(&s[0]));
    CHECK_OK(netio_close(&s[1]));
}

//================================================================================================
// Lookups: their thread outlives the call, so memory is given back a little later
//================================================================================================

// The result of a lookup on a thread, once all its memory is back.
static ptrdiff_t look_up(void)
{
    long blocks = test_blocks();
    uint64_t until = test_ms() + 5000;
    netio_addr a[4];
    armed = true;
    ptrdiff_t r = netio_resolve("localhost:80", a, 4, NULL, 3000);
    armed = false;
    test_alloc_fail_at(0);
    while (test_blocks() != blocks && test_ms() < until) test_sleep_ms(1);
    CHECK_EQ(blocks, test_blocks());
    return r;
}

TEST(fault, lookup_allocations)
{
    long n = 1;
    memset(&f, 0, sizeof f);
    for (;; n++) {
        long before = test_allocs();
        test_alloc_fail_at(n);
        ptrdiff_t r = look_up();
        if (test_allocs() - before < n) break;
        CHECK_ERR(NETIO_ENOMEM, r);
        CHECK(n < 20);
    }
    CHECK(n > 1);
}

TEST(fault, lookup_without_a_thread)
{
    memset(&f, 0, sizeof f);
    f.storm = NO_THREAD;
    ptrdiff_t r = look_up();
    CHECK(r < 0 && has_name(r));
    CHECK(r != NETIO_ETIMEDOUT); // said at once, not after 3 s in which nobody looked
    memset(&f, 0, sizeof f);
    CHECK(look_up() > 0);
}

static const test_case cases[] = {
    T(fault, tcp_over_ipv4),
    T(fault, tcp_dual_stack),
    T(fault, tcp_second_address),
    T(fault, tcp_connect_by_hand),
    T(fault, tcp_abort),
    T(fault, udp),
    T(fault, options),
    T(fault, unix_stream),
    T(fault, unix_socket_file_left_over),
    T(fault, pairs),
    T(fault, sendfile),
    T(fault, sendfile_from_a_pipe),
    T(fault, poller),
    T(fault, poller_stale),
    T(fault, poller_allocations),
    T(fault, poller_regular_file),
    T(fault, auto_does_without_epoll),
    T(fault, deadline_holds_though_every_wait_is_interrupted),
    T(fault, deadline_holds_though_readiness_lies),
    T(fault, lookup_allocations),
    T(fault, lookup_without_a_thread),
};

int main(int argc, char **argv)
{
    test_fill(sent, sizeof sent, 1);
    return test_main("fault", cases, sizeof cases / sizeof cases[0], argc, argv);
}
