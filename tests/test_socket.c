// TCP sockets: life, addresses, accept, connect by name and by hand, and what their errors say.
#ifndef _WIN32
#define _GNU_SOURCE // struct tcp_info, MAP_ANONYMOUS
#endif
#include "test.h"

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <process.h>
#else
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#if defined(__linux__) && defined(__has_include)
#if __has_include(<linux/rtnetlink.h>)
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#define HAS_NETLINK 1
#endif
#endif

//================================================================================================
// The system, where the public calls have no words for it: POSIX, then Windows
//================================================================================================

static const char *self; // argv[0]

#ifndef _WIN32
typedef int raw_socket;
static bool os_nonblocking(netio_socket s) { return (fcntl(s, F_GETFL) & O_NONBLOCK) != 0; }
static bool os_inheritable(netio_socket s) { return (fcntl(s, F_GETFD) & FD_CLOEXEC) == 0; }
static int os_close(raw_socket s) { return close(s); }
static bool os_mode_can_be_asked(void) { return true; }

// Run this program again with other arguments; returns its exit code.
static int run_self(const char *const *args)
{
    char *argv[12];
    int status = 0, n = 0;
    pid_t pid;
    for (; args[n] && n < 11; n++) argv[n] = (char *)(uintptr_t)args[n];
    argv[n] = NULL;
    pid = fork();
    if (pid == 0) {
        execv(self, argv);
        _exit(99);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

// Run a function as the user "nobody"; returns what it returned (a netio result), 1: cannot.
static int as_nobody(int (*run)(void *arg), void *arg)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        int err = setgid(65534) == 0 && setuid(65534) == 0 ? run(arg) : 1;
        _exit(err == 1 ? 255 : -err);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return 1;
    return WEXITSTATUS(status) == 255 ? 1 : -WEXITSTATUS(status);
}

// Use up all descriptors, until full_end; full_spare gives some back.
static struct {
    struct rlimit old;
    int fds[512];
    int count;
} full;

static bool full_begin(void)
{
    struct rlimit low;
    if (getrlimit(RLIMIT_NOFILE, &full.old) != 0) return false;
    low = full.old;
    low.rlim_cur = 256;
    if (setrlimit(RLIMIT_NOFILE, &low) != 0) return false;
    full.count = 0;
    while (full.count < 512 && (full.fds[full.count] = dup(1)) >= 0) full.count++;
    return errno == EMFILE;
}

static void full_spare(int n)
{
    for (; n > 0 && full.count > 0; n--) close(full.fds[--full.count]);
}

static void full_end(void)
{
    full_spare(full.count);
    setrlimit(RLIMIT_NOFILE, &full.old);
}

static volatile sig_atomic_t storm_hits;

static void storm_hit(int number)
{
    (void)number;
    storm_hits++;
}

// A signal each millisecond that ends every waiting system call with EINTR.
static bool storm(bool on)
{
    struct sigaction act;
    struct itimerval every;
    memset(&act, 0, sizeof act);
    memset(&every, 0, sizeof every);
    act.sa_handler = storm_hit;
    every.it_interval.tv_usec = every.it_value.tv_usec = on ? 1000 : 0;
    if (on) storm_hits = 0;
    return (!on || sigaction(SIGALRM, &act, NULL) == 0) &&
           setitimer(ITIMER_REAL, &every, NULL) == 0;
}
#else
typedef SOCKET raw_socket;
static bool os_nonblocking(netio_socket s)
{
    (void)s; // cannot be asked
    return true;
}
static bool os_inheritable(netio_socket s)
{
    DWORD flags = 0;
    return GetHandleInformation((HANDLE)s, &flags) && (flags & HANDLE_FLAG_INHERIT);
}
static int os_close(raw_socket s) { return closesocket(s); }
static bool os_mode_can_be_asked(void) { return false; }
static int run_self(const char *const *args) { return (int)_spawnv(_P_WAIT, self, args); }
static int as_nobody(int (*run)(void *arg), void *arg)
{
    (void)run, (void)arg;
    return 1;
}
static bool full_begin(void) { return false; }
static void full_spare(int n) { (void)n; }
static void full_end(void) {}
static const int storm_hits = 0;
static bool storm(bool on)
{
    (void)on;
    return false;
}
#endif

#ifdef __linux__
// What the kernel made of the backlog; for a listener tcp_info has it in this field.
static int kernel_backlog(netio_socket listener)
{
    struct tcp_info info;
    size_t len = sizeof info;
    if (netio_get_option_raw(listener, IPPROTO_TCP, TCP_INFO, &info, &len) < 0) return -1;
    return (int)info.tcpi_sacked;
}

static int kernel_backlog_cap(void)
{
    int cap = 0;
    FILE *f = fopen("/proc/sys/net/core/somaxconn", "r");
    if (f && fscanf(f, "%d", &cap) != 1) cap = 0;
    if (f) fclose(f);
    return cap;
}

static int first_free_port(void)
{
    int port = 1024;
    FILE *f = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "r");
    if (f && fscanf(f, "%d", &port) != 1) port = 1024;
    if (f) fclose(f);
    return port;
}
#else
static int kernel_backlog(netio_socket listener)
{
    (void)listener;
    return -1;
}
static int kernel_backlog_cap(void) { return 0; }
static int first_free_port(void) { return 1024; }
#endif

//================================================================================================
// Helpers
//================================================================================================

static bool slow_machine(void)
{
    return test_under("wine") || test_under("qemu") || test_under("valgrind") ||
           test_under("sanitizer");
}

static uint16_t port_of(netio_socket s)
{
    netio_addr a;
    CHECK_OK(netio_local_addr(s, &a));
    return netio_addr_port(&a);
}

static void parse(netio_addr *out, const char *text)
{
    CHECK_OK(netio_addr_parse(out, text, strlen(text)));
}

static const char *at_port(const char *format, int port)
{
    static char text[8][64];
    static unsigned next;
    char *out = text[next++ % 8];
    snprintf(out, sizeof text[0], format, port);
    return out;
}

static bool has_ipv6(void)
{
    netio_socket s;
    if (netio_listen(&s, "[::1]:0", NULL) < 0) return false;
    netio_close(&s);
    return true;
}

// One byte each way, so that a connection is known to be this very one.
static void check_linked(netio_socket a, netio_socket b)
{
    char c = 0;
    CHECK_ERR(1, netio_send(a, "x", 1, 5000));
    CHECK_ERR(1, netio_recv(b, &c, 1, 5000));
    CHECK_EQ('x', c);
    CHECK_ERR(1, netio_send(b, "y", 1, 5000));
    CHECK_ERR(1, netio_recv(a, &c, 1, 5000));
    CHECK_EQ('y', c);
}

// A port that answers with a reset for as long as the socket is open: bound, and not listening.
static uint16_t refusing_open(netio_socket *out)
{
    netio_addr a;
    size_t len;
    const void *raw;
    CHECK_OK(netio_open(out, AF_INET, SOCK_STREAM, 0));
    CHECK_OK(netio_addr_loopback(&a, NETIO_IPV4, 0));
    raw = netio_addr_sockaddr(&a, &len);
    CHECK_EQ(0, bind(*out, (const struct sockaddr *)raw, (socklen_t)len));
    return port_of(*out);
}

// A port that never answers: a listener whose queue is full. Linux drops what comes then.
typedef struct black_hole {
    netio_socket listener;
    netio_socket fill[32];
    int count;
    netio_addr addr;
    char text[NETIO_ADDR_TEXT];
} black_hole;

static void black_hole_close(black_hole *h)
{
    while (h->count > 0) netio_close(&h->fill[--h->count]);
    netio_close(&h->listener);
}

static void black_hole_open(black_hole *h)
{
    netio_socket_opts opts = {0};
    opts.backlog = 1;
    h->count = 0;
    CHECK_OK(netio_listen(&h->listener, "127.0.0.1:0", &opts));
    CHECK_OK(netio_local_addr(h->listener, &h->addr));
    CHECK(netio_addr_format(&h->addr, h->text, sizeof h->text) > 0);
    while (h->count < 32) {
        netio_socket *s = &h->fill[h->count];
        int err = netio_connect_start(s, &h->addr, NULL);
        if (err == 0 || err == NETIO_EINPROGRESS) h->count++;
        if (err == NETIO_EINPROGRESS) err = netio_connect_finish(*s, 60);
        if (err == NETIO_ETIMEDOUT) return;
        if (err < 0) break;
    }
    black_hole_close(h);
    SKIP("a full backlog does not swallow connects here");
}

// What the resolver hook answers. Static, since its thread may outlive the call that asked.
static struct {
    netio_addr list[NETIO_RESOLVE_MAX + 8];
    size_t count;
    ptrdiff_t err;
    int asked;
    uint16_t port;
    char host[64];
} names;

static ptrdiff_t names_resolve(void *user, const char *host, uint16_t port, netio_addr *out,
                               size_t cap)
{
    size_t i;
    (void)user;
    names.asked++;
    names.port = port;
    snprintf(names.host, sizeof names.host, "%s", host);
    if (names.err < 0) return names.err;
    for (i = 0; i < names.count && i < cap; i++) out[i] = names.list[i];
    return (ptrdiff_t)i;
}

#ifdef NETIO_NO_THREADS
static const bool has_lookups = false; // with a bounded time, that is
#else
static const bool has_lookups = true;
#endif

static void names_clear(netio_socket_opts *opts)
{
    if (!has_lookups) SKIP("built without threads: no lookup with a bounded time");
    memset(&names, 0, sizeof names);
    memset(opts, 0, sizeof *opts);
    opts->resolve.resolver = names_resolve;
}

static void names_add_port(uint16_t port)
{
    CHECK_OK(netio_addr_loopback(&names.list[names.count++], NETIO_IPV4, port));
}

//================================================================================================
// Life
//================================================================================================

TEST(socket, tcp_echo_returns_the_same_bytes)
{
    static const char hello[] = "Hello, Server!";
    netio_socket listener, client, server;
    char text[NETIO_ADDR_TEXT], buf[64];
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    CHECK_ERR(sizeof hello, netio_send(client, hello, sizeof hello, 5000));
    CHECK_OK(netio_recv_exact(server, buf, sizeof hello, NULL, 5000));
    CHECK_OK(netio_send_all(server, buf, sizeof hello, NULL, 5000));
    memset(buf, 0, sizeof buf);
    CHECK_OK(netio_recv_exact(client, buf, sizeof hello, NULL, 5000));
    CHECK_MEM(hello, buf, sizeof hello);
    CHECK_OK(netio_close(&client));
    CHECK_ERR(NETIO_EOF, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, wrong_order_is_an_error_and_no_crash)
{
    netio_socket unbound, datagram, client, server, out = NETIO_INVALID_SOCKET;
    netio_addr a;
    char buf[4];
    CHECK_OK(netio_open(&unbound, AF_INET, SOCK_STREAM, 0));
    CHECK_OK(netio_bind(&datagram, "127.0.0.1:0", NULL));
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EINVAL, netio_accept(&out, unbound, NULL, 0));
    CHECK_ERR(NETIO_EINVAL, netio_accept(&out, unbound, NULL, 1000));
    CHECK_ERR(NETIO_EINVAL, netio_accept(&out, datagram, NULL, 0));
    CHECK_ERR(NETIO_EINVAL, netio_accept(&out, client, NULL, 0));
    CHECK(out == NETIO_INVALID_SOCKET);
    CHECK_ERR(NETIO_ENOTCONN, netio_recv(unbound, buf, sizeof buf, 0));
    CHECK_ERR(NETIO_ENOTCONN, netio_shutdown(unbound, NETIO_SHUT_WRITE));
    CHECK_ERR(NETIO_ENOTCONN, netio_peer_addr(unbound, &a));
    {
        ptrdiff_t n = netio_send(unbound, "x", 1, 0);
        CHECK(n == NETIO_ENOTCONN || n == NETIO_EPIPE || // Linux: EPIPE
              (n == NETIO_ECONNRESET && test_under("wine")));
    }
    check_linked(client, server); // not harmed by the wrong accept
    CHECK_OK(netio_close(&unbound));
    CHECK_OK(netio_close(&datagram));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(socket, close_leaves_the_invalid_value_and_others_alone)
{
    netio_socket first, second, third;
    netio_addr a;
    CHECK_OK(netio_bind(&first, "127.0.0.1:0", NULL));
    CHECK_OK(netio_close(&first));
    CHECK(first == NETIO_INVALID_SOCKET);
    // The new socket has the number that was just closed.
    CHECK_OK(netio_bind(&second, "127.0.0.1:0", NULL));
    CHECK_ERR(NETIO_EBADF, netio_close(&first));
    CHECK_OK(netio_local_addr(second, &a));
    CHECK_OK(netio_bind(&third, "127.0.0.1:0", NULL));
    CHECK(second != third);
    CHECK_OK(netio_close(&second));
    CHECK_OK(netio_close(&third));
}

TEST(socket, every_call_on_the_invalid_value_is_ebadf)
{
    netio_socket s = NETIO_INVALID_SOCKET, out = NETIO_INVALID_SOCKET;
    netio_addr a, to;
    netio_buf piece = {"x", 1};
    netio_room room;
    unsigned found = 0;
    char buf[4];
    size_t done = 99;
    room.data = buf;
    room.cap = sizeof buf;
    parse(&to, "127.0.0.1:9");
    CHECK_ERR(NETIO_EBADF, netio_close(&s));
    CHECK_ERR(NETIO_EBADF, netio_abort(&s));
    CHECK_ERR(NETIO_EBADF, netio_close_gracefully(&s, 100, 100));
    CHECK_ERR(NETIO_EBADF, netio_accept(&out, s, NULL, 0));
    CHECK_ERR(NETIO_EBADF, netio_connect_finish(s, 0));
    CHECK_ERR(NETIO_EBADF, netio_adopt(s, &found));
    CHECK_ERR(NETIO_EBADF, netio_release(s, 0));
    CHECK_ERR(NETIO_EBADF, netio_shutdown(s, NETIO_SHUT_BOTH));
    CHECK_ERR(NETIO_EBADF, netio_local_addr(s, &a));
    CHECK_ERR(NETIO_EBADF, netio_peer_addr(s, &a));
    CHECK_ERR(NETIO_EBADF, netio_set_inheritable(s, true));
    CHECK_ERR(NETIO_EBADF, netio_wait(s, NETIO_EV_READ, 0));
    CHECK_ERR(NETIO_EBADF, netio_wait(s, NETIO_EV_READ | NETIO_EV_WRITE, 1000));
    CHECK_ERR(NETIO_EBADF, netio_recv(s, buf, sizeof buf, 1000));
    CHECK_ERR(NETIO_EBADF, netio_peek(s, buf, sizeof buf, 1000));
    CHECK_ERR(NETIO_EBADF, netio_send(s, "x", 1, 1000));
    CHECK_ERR(NETIO_EBADF, netio_recvv(s, &room, 1, 1000));
    CHECK_ERR(NETIO_EBADF, netio_sendv(s, &piece, 1, 1000));
    CHECK_ERR(NETIO_EBADF, netio_recv_exact(s, buf, sizeof buf, &done, 1000));
    CHECK_EQ(0, done);
    done = 99;
    CHECK_ERR(NETIO_EBADF, netio_send_all(s, "x", 1, &done, 1000));
    CHECK_EQ(0, done);
    done = 99;
    CHECK_ERR(NETIO_EBADF, netio_sendv_all(s, &piece, 1, &done, 1000));
    CHECK_EQ(0, done);
    CHECK_ERR(NETIO_EBADF, netio_recvfrom(s, buf, sizeof buf, &a, 1000));
    CHECK_ERR(NETIO_EBADF, netio_sendto(s, "x", 1, &to, 1000));
    CHECK(out == NETIO_INVALID_SOCKET);
}

TEST(socket, a_closed_number_is_ebadf)
{
    netio_socket s, number;
    char buf[4];
    if (test_under("valgrind")) SKIP("valgrind reports the use on purpose of a closed descriptor");
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    number = s;
    CHECK_OK(netio_close(&s));
    CHECK_ERR(NETIO_EBADF, netio_recv(number, buf, sizeof buf, 100));
    CHECK_ERR(NETIO_EBADF, netio_wait(number, NETIO_EV_READ, 100));
    CHECK_ERR(NETIO_EBADF, netio_close(&number));
}

TEST(socket, sockets_are_nonblocking_and_not_inherited_from_birth)
{
    netio_socket listener, s[8];
    char text[NETIO_ADDR_TEXT];
    netio_addr a;
    int count = 0;
    test_listen(&listener, text, "127.0.0.1:0");
    s[count++] = listener;
    CHECK_OK(netio_connect(&s[count++], text, NULL, 5000));
    CHECK_OK(netio_accept(&s[count++], listener, NULL, 5000));
    CHECK_OK(netio_bind(&s[count++], "127.0.0.1:0", NULL));
    CHECK_OK(netio_open(&s[count++], AF_INET, SOCK_DGRAM, 0));
    CHECK_OK(netio_local_addr(listener, &a));
    {
        int err = netio_connect_start(&s[count++], &a, NULL);
        CHECK(err == 0 || err == NETIO_EINPROGRESS);
    }
    CHECK_OK(netio_pair(&s[count], NETIO_STREAM));
    count += 2;
    for (int i = 0; i < count; i++) {
        CHECK(os_nonblocking(s[i]));
        CHECK(!os_inheritable(s[i]));
    }
    for (int i = 0; i < count; i++) CHECK_OK(netio_close(&s[i]));
}

// --- in the child that run_self starts: the arguments are descriptor numbers -------------------

// Exit code: bit i is set if argument i is an open socket here.
static int child_list(int argc, char **argv)
{
    int mask = 0;
    for (int i = 0; i < argc; i++) {
        netio_addr a;
        netio_socket s = (netio_socket)strtoull(argv[i], NULL, 10);
        if (netio_local_addr(s, &a) == 0) mask |= 1 << i;
    }
    return mask;
}

// Accept one client of an inherited listener and greet it.
static int child_serve(char **argv)
{
    netio_socket s, listener = (netio_socket)strtoull(argv[0], NULL, 10);
    unsigned found;
    if (netio_adopt(listener, &found) < 0) return 1;
    if (netio_accept(&s, listener, NULL, 5000) < 0) return 2;
    if (netio_send_all(s, "child", 5, NULL, 5000) < 0) return 3;
    return netio_close_gracefully(&s, 100, 5000) < 0 ? 4 : 0;
}

static const char *number_text(netio_socket s)
{
    static char text[8][24];
    static unsigned next;
    char *out = text[next++ % 8];
    snprintf(out, sizeof text[0], "%llu", (unsigned long long)s);
    return out;
}

TEST(socket, a_child_process_inherits_only_what_was_asked_for)
{
    netio_socket listener, client, server, asked, turned;
    netio_socket_opts opts = {0};
    char text[NETIO_ADDR_TEXT];
    if (test_under("qemu")) SKIP("a foreign program cannot exec itself");
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    opts.inheritable = true;
    CHECK_OK(netio_bind(&asked, "127.0.0.1:0", &opts));
    CHECK_OK(netio_bind(&turned, "127.0.0.1:0", NULL));
    {
        const char *args[] = {self,
                              "--list-open",
                              number_text(listener),
                              number_text(client),
                              number_text(server),
                              number_text(asked),
                              number_text(turned),
                              NULL};
        CHECK_EQ(8, run_self(args));
        CHECK_OK(netio_set_inheritable(turned, true));
        CHECK_OK(netio_set_inheritable(asked, false));
        CHECK_EQ(16, run_self(args));
    }
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&asked));
    CHECK_OK(netio_close(&turned));
}

TEST(socket, an_inherited_listener_can_be_adopted)
{
    netio_socket listener, client;
    netio_socket_opts opts = {0};
    netio_addr a;
    char buf[8];
    int err;
    if (test_under("qemu")) SKIP("a foreign program cannot exec itself");
    if (test_under("wine")) SKIP("Wine knows only the sockets that a process made itself");
    opts.inheritable = true;
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", &opts));
    CHECK_OK(netio_local_addr(listener, &a));
    err = netio_connect_start(&client, &a, NULL); // waits in the queue until the child accepts
    CHECK(err == 0 || err == NETIO_EINPROGRESS);
    {
        const char *args[] = {self, "--serve", number_text(listener), NULL};
        CHECK_OK(netio_connect_finish(client, 5000));
        CHECK_OK(
            netio_shutdown(client, NETIO_SHUT_WRITE)); // the child's graceful close waits for it
        CHECK_EQ(0, run_self(args));
    }
    CHECK_OK(netio_recv_exact(client, buf, 5, NULL, 5000));
    CHECK_MEM("child", buf, 5);
    CHECK_ERR(NETIO_EOF, netio_recv(client, buf, sizeof buf, 5000));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, a_raw_socket_is_adopted_used_and_released)
{
    netio_socket keeper, listener, server;
    raw_socket raw;
    char text[NETIO_ADDR_TEXT];
    struct sockaddr_in to;
    unsigned found = 77;
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_open(&keeper, AF_INET, SOCK_STREAM, 0)); // on Windows this starts Winsock
    raw = socket(AF_INET, SOCK_STREAM, 0);
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons(port_of(listener));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(0, connect(raw, (const struct sockaddr *)&to, sizeof to));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    CHECK_OK(netio_adopt((netio_socket)raw, &found));
    CHECK(os_nonblocking((netio_socket)raw));
    check_linked((netio_socket)raw, server);
    CHECK_OK(netio_release((netio_socket)raw, found));
    if (os_mode_can_be_asked()) CHECK(!os_nonblocking((netio_socket)raw));
    // What was found non-blocking stays so.
    CHECK_OK(netio_adopt((netio_socket)raw, &found));
    {
        unsigned again = 0;
        CHECK_OK(netio_adopt((netio_socket)raw, &again));
        CHECK_OK(netio_release((netio_socket)raw, again));
        CHECK(os_nonblocking((netio_socket)raw));
    }
    CHECK_OK(netio_release((netio_socket)raw, found));
    CHECK_EQ(0, os_close(raw));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_close(&keeper));
}

#ifndef _WIN32
TEST(socket, a_descriptor_that_is_no_socket_is_enotsock)
{
    int ends[2];
    unsigned found;
    netio_socket out;
    netio_addr a;
    CHECK_EQ(0, pipe(ends));
    CHECK_ERR(NETIO_ENOTSOCK, netio_adopt(ends[0], &found));
    CHECK(!os_nonblocking(ends[0])); // and its mode is as it was
    CHECK_ERR(NETIO_ENOTSOCK, netio_local_addr(ends[0], &a));
    CHECK_ERR(NETIO_ENOTSOCK, netio_accept(&out, ends[0], NULL, 0));
    CHECK_ERR(NETIO_ENOTSOCK, netio_send(ends[1], "x", 1, 0));
    CHECK_EQ(0, close(ends[0]));
    CHECK_EQ(0, close(ends[1]));
}
#else
TEST(socket, a_descriptor_that_is_no_socket_is_enotsock) { SKIP("descriptors are sockets here"); }
#endif

//================================================================================================
// Listening
//================================================================================================

TEST(socket, every_text_form_listens_and_connects)
{
    // clang-format off
    static const struct { const char *listen, *dial; bool v6; } forms[] = {
        {"127.0.0.1:0", "127.0.0.1:%d", false}, {"0.0.0.0:0", "127.0.0.1:%d", false},
        {":0", "127.0.0.1:%d", false},          {"*:0", "127.0.0.1:%d", false},
        {":0", ":%d", false},                   {"*:0", "*:%d", false},
        {"127.0.0.1:0", "localhost:%d", false}, {":0", "localhost:%d", false},
        {"127.0.0.1:0", "0.0.0.0:%d", false},   // any-address: this machine, as Go has it
        {"[::1]:0", "[::1]:%d", true},          {"[::]:0", "[::1]:%d", true},
        {"[::]:0", "127.0.0.1:%d", true},       {":0", "[::1]:%d", true},
        {"[::1]:0", "[::]:%d", true},           {"[::ffff:127.0.0.1]:0", "127.0.0.1:%d", true},
        {"127.0.0.1:0", "[::ffff:127.0.0.1]:%d", true},
    };
    // clang-format on
    bool v6 = has_ipv6();
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        netio_socket listener, client, server;
        if (forms[i].v6 && !v6) continue;
        if (strncmp(forms[i].dial, "local", 5) == 0 && !has_lookups) continue;
        int err = netio_listen(&listener, forms[i].listen, NULL);
        if (err < 0)
            test_fail(__FILE__, __LINE__, "listen %s: %s", forms[i].listen, netio_errname(err));
        err = netio_connect(&client, at_port(forms[i].dial, port_of(listener)), NULL, 5000);
        if (err < 0)
            test_fail(__FILE__, __LINE__, "listen %s, dial %s: %s", forms[i].listen, forms[i].dial,
                      netio_errname(err));
        CHECK_OK(netio_accept(&server, listener, NULL, 5000));
        check_linked(client, server);
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
        CHECK_OK(netio_close(&listener));
    }
}

TEST(socket, bad_text_is_einval_before_any_socket_exists)
{
    static const char *const bad[] = {"",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      "127.0.0.1:65536",
                                      "127.0.0.1:80x",
                                      "127.0.0.1:-1",
                                      "::1:80",
                                      "[::1:80",
                                      "[::1]80",
                                      "1.2.3:80",
                                      "01.2.3.4:80",
                                      "localhost:80",
                                      "256.0.0.1:80"};
    static const char *const bad_dial[] = {"",        "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536",
                                           "[::1:80", "[::1]80",   "::1:80",     "1.2.3:80"};
    netio_socket s = NETIO_INVALID_SOCKET;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (netio_listen(&s, bad[i], NULL) != NETIO_EINVAL ||
            netio_bind(&s, bad[i], NULL) != NETIO_EINVAL)
            test_fail(__FILE__, __LINE__, "\"%s\" was not EINVAL", bad[i]);
    }
    for (size_t i = 0; i < sizeof bad_dial / sizeof bad_dial[0]; i++) {
        int err = netio_connect(&s, bad_dial[i], NULL, 1000);
        if (err != NETIO_EINVAL)
            test_fail(__FILE__, __LINE__, "\"%s\": %s", bad_dial[i], netio_errname(err));
    }
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_EQ(0, test_ops(NETIO_OP_OPEN));
}

TEST(socket, family_and_text_must_agree)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    opts.family = NETIO_IPV6;
    CHECK_ERR(NETIO_EAFNOSUPPORT, netio_listen(&s, "127.0.0.1:0", &opts));
    opts.family = NETIO_IPV4;
    CHECK_ERR(NETIO_EAFNOSUPPORT, netio_listen(&s, "[::1]:0", &opts));
    opts.family = 99;
    CHECK(netio_listen(&s, "127.0.0.1:0", &opts) < 0);
    CHECK(s == NETIO_INVALID_SOCKET);
    opts.family = NETIO_IPV4; // of ":0" only this half
    CHECK_OK(netio_listen(&s, ":0", &opts));
    {
        netio_addr a;
        CHECK_OK(netio_local_addr(s, &a));
        CHECK_EQ(NETIO_IPV4, netio_addr_family(&a));
    }
    CHECK_OK(netio_close(&s));
}

TEST(socket, port_zero_gives_different_ports)
{
    netio_socket a, b;
    CHECK_OK(netio_listen(&a, "127.0.0.1:0", NULL));
    CHECK_OK(netio_listen(&b, "127.0.0.1:0", NULL));
    CHECK(port_of(a) != 0);
    CHECK(port_of(b) != 0);
    CHECK(port_of(a) != port_of(b));
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_close(&b));
}

TEST(socket, an_unbound_socket_has_port_zero)
{
    static const int families[] = {AF_INET, AF_INET6};
    for (int i = 0; i < (has_ipv6() ? 2 : 1); i++) {
        netio_socket s;
        netio_addr a;
        CHECK_OK(netio_open(&s, families[i], SOCK_STREAM, 0));
        CHECK_OK(netio_local_addr(s, &a));
        CHECK_EQ(i == 0 ? NETIO_IPV4 : NETIO_IPV6, netio_addr_family(&a));
        CHECK_EQ(0, netio_addr_port(&a));
        CHECK_OK(netio_close(&s));
    }
}

TEST(socket, a_live_port_is_taken)
{
    netio_socket a, b = NETIO_INVALID_SOCKET;
    const char *text;
    CHECK_OK(netio_listen(&a, "127.0.0.1:0", NULL));
    text = at_port("127.0.0.1:%d", port_of(a));
    CHECK_ERR(NETIO_EADDRINUSE, netio_listen(&b, text, NULL));
    CHECK(netio_os_error() != 0);
    CHECK(b == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_listen(&b, text, NULL));
    CHECK_OK(netio_close(&b));
}

TEST(socket, a_listener_restarts_while_old_connections_linger)
{
    netio_socket listener, client, server, live_client, live_server, again;
    char text[NETIO_ADDR_TEXT], c;
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    CHECK_OK(netio_connect(&live_client, text, NULL, 5000));
    CHECK_OK(netio_accept(&live_server, listener, NULL, 5000));
    // The side that closes first is left in TIME_WAIT, with the listener's port.
    CHECK_OK(netio_close(&server));
    CHECK_ERR(NETIO_EOF, netio_recv(client, &c, 1, 5000));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_listen(&again, text, NULL));
    check_linked(live_client, live_server); // the old one lives on beside the new listener
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, again, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&live_client));
    CHECK_OK(netio_close(&live_server));
    CHECK_OK(netio_close(&again));
}

TEST(socket, exclusive_means_the_same_rule_or_a_stricter_one)
{
    netio_socket a, b = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    opts.exclusive = true;
    CHECK_OK(netio_listen(&a, "127.0.0.1:0", &opts));
    CHECK_ERR(NETIO_EADDRINUSE, netio_listen(&b, at_port("127.0.0.1:%d", port_of(a)), &opts));
    CHECK_OK(netio_close(&a));
}

TEST(socket, a_foreign_address_cannot_be_listened_on)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    CHECK_ERR(NETIO_EADDRNOTAVAIL, netio_listen(&s, "198.51.100.7:0", NULL)); // RFC 5737
    if (!test_under("wine")) { // which takes any address for datagrams
        CHECK_ERR(NETIO_EADDRNOTAVAIL, netio_bind(&s, "198.51.100.7:0", NULL));
        CHECK(s == NETIO_INVALID_SOCKET);
    }
}

static int listen_low(void *arg)
{
    netio_socket s;
    int err = netio_listen(&s, (const char *)arg, NULL);
    if (err == 0) netio_close(&s);
    return err;
}

TEST(socket, a_low_port_needs_the_right_to_it)
{
    char text[] = "127.0.0.1:1";
    int err;
    if (first_free_port() <= 1) SKIP("this system lets anybody have low ports");
    err = as_nobody(listen_low, text);
    if (err == 1) SKIP("needs root, to become somebody else");
    CHECK_ERR(NETIO_EACCES, err);
}

TEST(socket, settings_apply_before_listening_in_any_order)
{
    netio_setting forward[] = {{NETIO_OPT_SNDBUF, 262144, NULL},
                               {NETIO_OPT_RCVBUF, 131072, NULL},
                               {NETIO_OPT_KEEPALIVE, 1, NULL}};
    netio_setting backward[] = {{NETIO_OPT_KEEPALIVE, 1, NULL},
                                {NETIO_OPT_RCVBUF, 131072, NULL},
                                {NETIO_OPT_SNDBUF, 262144, NULL}};
    int got[2][3];
    for (int i = 0; i < 2; i++) {
        netio_socket_opts opts = {0};
        netio_socket s;
        opts.settings = i ? backward : forward;
        opts.setting_count = 3;
        CHECK_OK(netio_listen(&s, "127.0.0.1:0", &opts));
        CHECK_OK(netio_get_option(s, NETIO_OPT_SNDBUF, &got[i][0]));
        CHECK_OK(netio_get_option(s, NETIO_OPT_RCVBUF, &got[i][1]));
        CHECK_OK(netio_get_option(s, NETIO_OPT_KEEPALIVE, &got[i][2]));
        CHECK_OK(netio_close(&s));
    }
    CHECK(got[0][0] >= 262144);
    CHECK(got[0][1] >= 131072);
    CHECK_EQ(1, got[0][2]);
    for (int k = 0; k < 3; k++) CHECK_EQ(got[0][k], got[1][k]);
}

TEST(socket, settings_apply_to_dialed_and_datagram_sockets)
{
    netio_setting settings[] = {{NETIO_OPT_RCVBUF, 65536, NULL}, {NETIO_OPT_TTL, 9, NULL}};
    netio_socket_opts opts = {0};
    netio_socket listener, s[3];
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    int err, value;
    opts.settings = settings;
    opts.setting_count = 2;
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK_OK(netio_connect(&s[0], text, &opts, 5000));
    err = netio_connect_start(&s[1], &a, &opts);
    CHECK(err == 0 || err == NETIO_EINPROGRESS);
    CHECK_OK(netio_bind(&s[2], "127.0.0.1:0", &opts));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(netio_get_option(s[i], NETIO_OPT_RCVBUF, &value));
        CHECK(value >= 65536);
        CHECK_OK(netio_get_option(s[i], NETIO_OPT_TTL, &value));
        CHECK_EQ(9, value);
        CHECK_OK(netio_close(&s[i]));
    }
    CHECK_OK(netio_close(&listener));
}

TEST(socket, a_setting_that_fails_fails_the_call)
{
    netio_setting bad_value[] = {{NETIO_OPT_RCVBUF, -5, NULL}};
    netio_setting wrong_kind[] = {{NETIO_OPT_BROADCAST, 1, NULL}}; // datagrams only
    netio_setting unknown[] = {{9999, 1, NULL}};
    netio_socket_opts opts = {0};
    netio_socket s = NETIO_INVALID_SOCKET, listener;
    char text[NETIO_ADDR_TEXT];
    opts.settings = bad_value;
    opts.setting_count = 1;
    CHECK_ERR(NETIO_EINVAL, netio_listen(&s, "127.0.0.1:0", &opts));
    CHECK_ERR(NETIO_EINVAL, netio_bind(&s, "127.0.0.1:0", &opts));
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_ERR(NETIO_EINVAL, netio_connect(&s, text, &opts, 5000));
    opts.settings = wrong_kind;
    CHECK_ERR(NETIO_ENOTSUP, netio_listen(&s, "127.0.0.1:0", &opts));
    CHECK_ERR(NETIO_ENOTSUP, netio_connect(&s, text, &opts, 5000));
    opts.settings = unknown;
    CHECK(netio_listen(&s, "127.0.0.1:0", &opts) < 0);
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_close(&listener));
}

TEST(socket, the_kernel_gets_the_backlog_asked_for)
{
    static const int wanted[] = {1, 128, 1024, 0};
    int cap = kernel_backlog_cap();
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    opts.backlog = -1;
    CHECK_ERR(NETIO_EINVAL, netio_listen(&s, "127.0.0.1:0", &opts));
    CHECK(s == NETIO_INVALID_SOCKET);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        int want = wanted[i] ? wanted[i] : 1024;
        opts.backlog = wanted[i];
        CHECK_OK(netio_listen(&s, "127.0.0.1:0", &opts));
        if (cap > 0 && !test_under("qemu")) CHECK_EQ(want < cap ? want : cap, kernel_backlog(s));
        CHECK_OK(netio_close(&s));
    }
    if (cap <= 0) SKIP("the kernel's backlog cannot be asked here; only the calls were tried");
}

TEST(socket, a_short_backlog_loses_no_client_that_connected)
{
    enum { CLIENTS = 50 };
    netio_socket listener, client[CLIENTS], server;
    bool connected[CLIENTS], served[CLIENTS];
    netio_socket_opts opts = {0};
    netio_addr a;
    int up = 0, left;
    int64_t by;
    opts.backlog = 1;
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", &opts));
    CHECK_OK(netio_local_addr(listener, &a));
    for (int i = 0; i < CLIENTS; i++) {
        int err = netio_connect_start(&client[i], &a, NULL);
        CHECK(err == 0 || err == NETIO_EINPROGRESS);
        served[i] = false;
    }
    for (int i = 0; i < CLIENTS; i++) {
        connected[i] = netio_connect_finish(client[i], i == 0 ? 5000 : 0) == 0;
        if (!connected[i]) continue;
        up++;
        char index = (char)i;
        CHECK_ERR(1, netio_send(client[i], &index, 1, 5000));
    }
    CHECK(up >= 1);
    by = netio_deadline(8000);
    for (left = up; left > 0;) {
        unsigned char index = 255;
        CHECK_OK(netio_accept(&server, listener, NULL, netio_deadline_left(by)));
        // One of those that were still pending may have come in; it sends nothing.
        if (netio_recv(server, &index, 1, 100) == 1) {
            CHECK(index < CLIENTS && connected[index] && !served[index]);
            served[index] = true;
            left--;
        }
        CHECK_OK(netio_close(&server));
    }
    for (int i = 0; i < CLIENTS; i++) CHECK_OK(netio_close(&client[i]));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, dual_stack_listener_takes_both_families_and_unmaps)
{
    static const char *const texts[] = {":0", "[::]:0", "*:0"};
    if (!has_ipv6()) SKIP("no IPv6 here");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        netio_socket listener, client, server;
        netio_addr peer, local;
        int port;
        CHECK_OK(netio_listen(&listener, texts[i], NULL));
        port = port_of(listener);
        CHECK_OK(netio_connect(&client, at_port("127.0.0.1:%d", port), NULL, 5000));
        CHECK_OK(netio_accept(&server, listener, &peer, 5000));
        CHECK_EQ(NETIO_IPV4, netio_addr_family(&peer)); // not ::ffff:127.0.0.1
        CHECK_OK(netio_local_addr(client, &local));
        CHECK(netio_addr_equal(&peer, &local));
        CHECK_OK(netio_local_addr(server, &local));
        CHECK_EQ(NETIO_IPV4, netio_addr_family(&local));
        CHECK_OK(netio_peer_addr(server, &peer));
        CHECK_EQ(NETIO_IPV4, netio_addr_family(&peer));
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
        CHECK_OK(netio_connect(&client, at_port("[::1]:%d", port), NULL, 5000));
        CHECK_OK(netio_accept(&server, listener, &peer, 5000));
        CHECK_EQ(NETIO_IPV6, netio_addr_family(&peer));
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
        CHECK_OK(netio_close(&listener));
    }
}

TEST(socket, v6_only_listener_refuses_ipv4)
{
    netio_socket listener, client = NETIO_INVALID_SOCKET, server;
    netio_socket_opts opts = {0};
    int port, only = 0;
    if (!has_ipv6()) SKIP("no IPv6 here");
    opts.v6_only = true;
    CHECK_OK(netio_listen(&listener, "[::]:0", &opts));
    port = port_of(listener);
    CHECK_OK(netio_get_option(listener, NETIO_OPT_V6ONLY, &only));
    CHECK_EQ(1, only);
    CHECK_ERR(NETIO_ECONNREFUSED,
              netio_connect(&client, at_port("127.0.0.1:%d", port), NULL, 5000));
    CHECK(client == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_connect(&client, at_port("[::1]:%d", port), NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, balance_spreads_clients_or_says_it_cannot)
{
    enum { LISTENERS = 4, CLIENTS = 400 };
    netio_socket listener[LISTENERS], client, server, other = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    const char *text;
    int got[LISTENERS] = {0}, err;
    opts.balance = true;
    err = netio_listen(&listener[0], "127.0.0.1:0", &opts);
    if (err == NETIO_ENOTSUP) SKIP("this kernel does not balance, and netio says so");
    CHECK_OK(err);
    text = at_port("127.0.0.1:%d", port_of(listener[0]));
    CHECK_ERR(NETIO_EADDRINUSE, netio_listen(&other, text, NULL)); // one that did not ask
    for (int i = 1; i < LISTENERS; i++) CHECK_OK(netio_listen(&listener[i], text, &opts));
    for (int n = 0; n < CLIENTS; n++) {
        bool found = false;
        CHECK_OK(netio_connect(&client, text, NULL, 5000));
        while (!found) {
            for (int i = 0; i < LISTENERS && !found; i++) {
                if (netio_accept(&server, listener[i], NULL, 0) < 0) continue;
                found = true;
                got[i]++;
            }
        }
        CHECK_OK(netio_abort(&client)); // no TIME_WAIT of 400
        CHECK_OK(netio_close(&server));
    }
    for (int i = 0; i < LISTENERS; i++) CHECK(got[i] > 0);
    for (int i = 0; i < LISTENERS; i++) CHECK_OK(netio_close(&listener[i]));
}

//================================================================================================
// Accepting
//================================================================================================

TEST(socket, accept_has_three_results)
{
    netio_socket listener, client, server = NETIO_INVALID_SOCKET;
    char text[NETIO_ADDR_TEXT];
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_ERR(NETIO_EAGAIN, netio_accept(&server, listener, NULL, 0));
    CHECK(server == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_ERR(NETIO_EV_READ, netio_wait(listener, NETIO_EV_READ, 5000) & NETIO_EV_READ);
    CHECK_OK(netio_accept(&server, listener, NULL, 0));
    CHECK_ERR(NETIO_EAGAIN, netio_accept(&server, listener, NULL, 0));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, accept_times_out_on_time)
{
    netio_socket listener, server = NETIO_INVALID_SOCKET;
    char text[NETIO_ADDR_TEXT];
    uint64_t from;
    test_listen(&listener, text, "127.0.0.1:0");
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_accept(&server, listener, NULL, 100));
    CHECK_BETWEEN(99, 2000, test_ms() - from);
    CHECK_OK(netio_close(&listener));
}

TEST(socket, accept_tells_the_peer_and_both_ends_agree)
{
    static const char *const texts[] = {"127.0.0.1:0", "[::1]:0"};
    for (int i = 0; i < (has_ipv6() ? 2 : 1); i++) {
        netio_socket listener, client, server;
        netio_addr peer, a, b;
        char text[NETIO_ADDR_TEXT];
        test_listen(&listener, text, texts[i]);
        CHECK_OK(netio_connect(&client, text, NULL, 5000));
        CHECK_OK(netio_accept(&server, listener, &peer, 5000));
        CHECK_OK(netio_local_addr(client, &a));
        CHECK(netio_addr_equal(&a, &peer));
        CHECK_OK(netio_peer_addr(server, &b));
        CHECK(netio_addr_equal(&a, &b));
        CHECK_OK(netio_local_addr(server, &a));
        CHECK_OK(netio_peer_addr(client, &b));
        CHECK(netio_addr_equal(&a, &b));
        CHECK_OK(netio_local_addr(listener, &b));
        CHECK(netio_addr_equal(&a, &b));
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
        CHECK_OK(netio_close(&listener));
    }
}

TEST(socket, a_client_that_left_does_not_stop_the_listener)
{
    netio_socket listener, client, server;
    char text[NETIO_ADDR_TEXT], c;
    test_listen(&listener, text, "127.0.0.1:0");
    for (int i = 0; i < 3; i++) {
        CHECK_OK(netio_connect(&client, text, NULL, 5000));
        CHECK_OK(netio_abort(&client)); // reset while it waits in the queue
        int err = netio_accept(&server, listener, NULL, 200);
        // Linux hands it out dead, the BSDs say ECONNABORTED, which netio skips.
        CHECK(err == 0 || err == NETIO_ETIMEDOUT);
        if (err == 0) {
            ptrdiff_t n = netio_recv(server, &c, 1, 5000);
            CHECK(n == NETIO_ECONNRESET || (n == NETIO_EOF && test_under("wine")));
            CHECK_OK(netio_close(&server));
        }
    }
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, accept_at_the_descriptor_limit_returns_and_recovers)
{
    netio_socket listener, client[2], server = NETIO_INVALID_SOCKET, second;
    char text[NETIO_ADDR_TEXT];
    int err[4];
    uint64_t from, cpu, spent;
    if (test_under("valgrind")) SKIP("valgrind accepts the client itself, then drops it");
    test_listen(&listener, text, "127.0.0.1:0");
    for (int i = 0; i < 2; i++) CHECK_OK(netio_connect(&client[i], text, NULL, 5000));
    if (!full_begin()) {
        full_end();
        SKIP("the number of descriptors cannot be limited here");
    }
    from = test_ms();
    cpu = test_cpu_ms();
    err[0] = netio_accept(&server, listener, NULL, 3000);
    err[1] = netio_accept(&second, listener, NULL, 0);
    cpu = test_cpu_ms() - cpu;
    spent = test_ms() - from;
    full_spare(1); // as if another connection had been closed
    err[2] = netio_accept(&server, listener, NULL, 3000);
    err[3] = netio_accept(&second, listener, NULL, 3000);
    full_end();
    CHECK_ERR(NETIO_EMFILE, err[0]);
    CHECK_ERR(NETIO_EMFILE, err[1]);
    CHECK_OK(err[2]);
    CHECK_ERR(NETIO_EMFILE, err[3]);
    CHECK_BETWEEN(0, 1000, spent); // told at once, neither waited out nor spun on
    CHECK_BETWEEN(0, 500, cpu);
    CHECK_OK(netio_accept(&second, listener, NULL, 3000)); // the other client still waited
    for (int i = 0; i < 2; i++) CHECK_OK(netio_close(&client[i]));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&second));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, running_out_of_descriptors_is_emfile_everywhere_and_leaks_none)
{
    netio_socket s = NETIO_INVALID_SOCKET, pair[2], listener;
    netio_socket_opts opts = {0};
    netio_error errors[2];
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    int err[8], n = 0;
    if (test_under("valgrind")) SKIP("valgrind has a limit of its own");
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_local_addr(listener, &a));
    memset(errors, 0, sizeof errors);
    opts.errors = errors;
    opts.error_cap = 2;
    if (!full_begin()) {
        full_end();
        SKIP("the number of descriptors cannot be limited here");
    }
    err[n++] = netio_listen(&s, "127.0.0.1:0", NULL);
    err[n++] = netio_bind(&s, "127.0.0.1:0", NULL);
    err[n++] = netio_connect(&s, text, &opts, 1000);
    err[n++] = netio_connect_start(&s, &a, NULL);
    err[n++] = netio_open(&s, AF_INET, SOCK_STREAM, 0);
    err[n++] = netio_pair(pair, NETIO_STREAM);
    full_spare(1);
    err[n++] = netio_pair(pair, NETIO_DGRAM); // one is left, it needs two
    full_end();
    for (int i = 0; i < n; i++) CHECK_ERR(NETIO_EMFILE, err[i]);
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_EQ(NETIO_EMFILE, errors[0].err);
    CHECK_OK(netio_close(&listener));
}

//================================================================================================
// Connecting
//================================================================================================

TEST(socket, refused_is_named_refused_at_once)
{
    netio_socket keeper, s = NETIO_INVALID_SOCKET;
    int port = refusing_open(&keeper);
    uint64_t from = test_ms();
    CHECK_ERR(NETIO_ECONNREFUSED, netio_connect(&s, at_port("127.0.0.1:%d", port), NULL, 10000));
    CHECK(netio_os_error() != 0);
    CHECK_EQ(NETIO_ECONNREFUSED, netio_error_from_os(netio_os_error()));
    CHECK_BETWEEN(0, 3000, test_ms() - from);
    CHECK_ERR(NETIO_ECONNREFUSED, netio_connect(&s, at_port("127.0.0.1:%d", port), NULL, -1));
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_close(&keeper));
}

TEST(socket, connect_times_out_on_time_and_closes)
{
    black_hole hole;
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    netio_error errors[3];
    uint64_t from;
    black_hole_open(&hole);
    opts.errors = errors;
    opts.error_cap = 3;
    memset(errors, 0xEE, sizeof errors);
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_connect(&s, hole.text, &opts, 200));
    CHECK_BETWEEN(199, 2000, test_ms() - from);
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_EQ(NETIO_ETIMEDOUT, errors[0].err);
    CHECK_EQ(NETIO_STAGE_CONNECT, errors[0].stage);
    CHECK(errors[0].text[0]);
    CHECK_EQ(NETIO_ETIMEDOUT, errors[1].err);
    CHECK(netio_addr_equal(&hole.addr, &errors[1].addr));
    CHECK_EQ(0, errors[2].err);
    CHECK_ERR(NETIO_EAGAIN, netio_connect(&s, hole.text, NULL, 0)); // 0: do not wait
    CHECK(s == NETIO_INVALID_SOCKET);
    black_hole_close(&hole);
}

TEST(socket, a_signal_storm_lengthens_no_connect)
{
    black_hole hole;
    netio_socket s = NETIO_INVALID_SOCKET, started;
    int err[2];
    uint64_t ms[2];
    black_hole_open(&hole);
    CHECK_ERR(NETIO_EINPROGRESS, netio_connect_start(&started, &hole.addr, NULL));
    if (!storm(true)) {
        netio_close(&started);
        black_hole_close(&hole);
        SKIP("no signals of POSIX here");
    }
    ms[0] = test_ms();
    err[0] = netio_connect(&s, hole.text, NULL, 300);
    ms[1] = test_ms();
    ms[0] = ms[1] - ms[0];
    err[1] = netio_connect_finish(started, 300);
    ms[1] = test_ms() - ms[1];
    storm(false);
    CHECK(storm_hits > 50);
    for (int i = 0; i < 2; i++) {
        CHECK_ERR(NETIO_ETIMEDOUT, err[i]);
        CHECK_BETWEEN(299, 2300, ms[i]);
    }
    CHECK_OK(netio_close(&started));
    black_hole_close(&hole);
}

TEST(socket, connect_by_hand_starts_waits_and_finishes)
{
    netio_socket listener, client, server;
    netio_addr a;
    int err;
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(listener, &a));
    err = netio_connect_start(&client, &a, NULL);
    CHECK(err == 0 || err == NETIO_EINPROGRESS);
    CHECK_EQ(NETIO_EV_WRITE, netio_wait(client, NETIO_EV_WRITE, 5000) & NETIO_EV_WRITE);
    CHECK_OK(netio_connect_finish(client, 0));
    CHECK_OK(netio_connect_finish(client, 1000)); // again is no harm
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, connect_by_hand_to_a_closed_port_is_refused)
{
    netio_socket keeper, s = NETIO_INVALID_SOCKET;
    netio_addr a;
    int port = refusing_open(&keeper), err;
    CHECK_OK(netio_addr_loopback(&a, NETIO_IPV4, (uint16_t)port));
    err = netio_connect_start(&s, &a, NULL);
    if (err == NETIO_EINPROGRESS) {
        // Windows tells it through the exception set of select only; the wait must not miss it.
        CHECK_EQ(NETIO_EV_WRITE, netio_wait(s, NETIO_EV_WRITE, 10000) & NETIO_EV_WRITE);
        err = netio_connect_finish(s, 0);
    }
    CHECK_ERR(NETIO_ECONNREFUSED, err);
    if (s != NETIO_INVALID_SOCKET) CHECK_OK(netio_close(&s));
    err = netio_connect_start(&s, &a, NULL);
    if (err == NETIO_EINPROGRESS) err = netio_connect_finish(s, 10000); // it waits by itself
    CHECK_ERR(NETIO_ECONNREFUSED, err);
    if (s != NETIO_INVALID_SOCKET) CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&keeper));
}

TEST(socket, connect_by_hand_that_gets_no_answer_can_be_dropped)
{
    black_hole hole;
    netio_socket s;
    uint64_t from;
    black_hole_open(&hole);
    CHECK_ERR(NETIO_EINPROGRESS, netio_connect_start(&s, &hole.addr, NULL));
    CHECK_ERR(NETIO_EAGAIN, netio_connect_finish(s, 0));
    CHECK_ERR(NETIO_EAGAIN, netio_wait(s, NETIO_EV_WRITE, 0));
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_connect_finish(s, 100));
    CHECK_BETWEEN(99, 2000, test_ms() - from);
    CHECK_ERR(NETIO_EAGAIN, netio_connect_finish(s, 0)); // the deadline passed, the connect goes on
    CHECK_OK(netio_close(&s));
    black_hole_close(&hole);
}

TEST(socket, connect_start_judges_its_address)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_addr none;
    netio_socket_opts opts = {0};
    memset(&none, 0, sizeof none);
    CHECK_ERR(NETIO_EINVAL, netio_connect_start(&s, &none, NULL));
    parse(&none, "127.0.0.1:9");
    opts.type = 99;
    CHECK(netio_connect_start(&s, &none, &opts) < 0);
    opts.type = 0;
    opts.local = "nonsense";
    CHECK_ERR(NETIO_EINVAL, netio_connect_start(&s, &none, &opts));
    opts.local = "[::1]:0"; // not the family of the peer
    CHECK(netio_connect_start(&s, &none, &opts) < 0);
    CHECK(s == NETIO_INVALID_SOCKET);
}

TEST(socket, the_source_address_can_be_chosen)
{
    netio_socket listener, client = NETIO_INVALID_SOCKET, server, probe;
    netio_socket_opts opts = {0};
    netio_addr peer, want;
    char text[NETIO_ADDR_TEXT];
    int port, err;
    test_listen(&listener, text, "127.0.0.1:0");
    if (netio_bind(&probe, "127.0.0.2:0", NULL) == 0) { // Linux, Windows: all of 127/8
        CHECK_OK(netio_close(&probe));
        opts.local = "127.0.0.2:0";
        CHECK_OK(netio_connect(&client, text, &opts, 5000));
        CHECK_OK(netio_accept(&server, listener, &peer, 5000));
        parse(&want, "127.0.0.2:0");
        CHECK(netio_addr_equal_host(&want, &peer));
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
    }
    CHECK_OK(netio_listen(&probe, "127.0.0.1:0", NULL)); // a port that is free after close
    port = port_of(probe);
    CHECK_OK(netio_close(&probe));
    opts.local = at_port("127.0.0.1:%d", port);
    CHECK_OK(netio_connect(&client, text, &opts, 5000));
    CHECK_OK(netio_accept(&server, listener, &peer, 5000));
    CHECK_EQ(port, netio_addr_port(&peer));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    opts.local = "198.51.100.7:0";
    CHECK_ERR(NETIO_EADDRNOTAVAIL, netio_connect(&client, text, &opts, 5000));
    CHECK_OK(netio_local_addr(listener, &want));
    err = netio_connect_start(&client, &want, &opts);
    CHECK_ERR(NETIO_EADDRNOTAVAIL, err);
    opts.local = "127.0.0.1";
    CHECK_ERR(NETIO_EINVAL, netio_connect(&client, text, &opts, 5000));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, a_socket_never_connects_to_itself)
{
    // Both SYNs cross when source and target are one: TCP allows it, no caller means it.
    netio_socket probe, s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    const char *text;
    CHECK_OK(netio_listen(&probe, "127.0.0.1:0", NULL));
    text = at_port("127.0.0.1:%d", port_of(probe));
    CHECK_OK(netio_close(&probe));
    opts.local = text;
    CHECK(netio_connect(&s, text, &opts, 1000) < 0);
    CHECK(s == NETIO_INVALID_SOCKET);
}

TEST(socket, dialing_a_name_whose_first_address_refuses)
{
    netio_socket keeper, listener, client, server;
    netio_socket_opts opts;
    uint64_t from;
    int refusing = refusing_open(&keeper);
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    names_clear(&opts);
    names_add_port((uint16_t)refusing);
    names_add_port(port_of(listener));
    opts.stagger_ms = 4000; // a failure starts the next at once, whatever the head start
    from = test_ms();
    CHECK_OK(netio_connect(&client, "some.name:4711", &opts, 10000));
    CHECK_BETWEEN(0, 3500, test_ms() - from);
    CHECK_EQ(1, names.asked);
    CHECK_EQ(4711, names.port);
    CHECK_STR("some.name", names.host);
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_close(&keeper));
}

TEST(socket, dialing_localhost_reaches_whichever_family_listens)
{
    static const char *const texts[] = {"127.0.0.1:0", "[::1]:0"};
    if (!has_lookups) SKIP("built without threads: no lookup with a bounded time");
    for (int i = 0; i < (has_ipv6() ? 2 : 1); i++) {
        netio_socket listener, client, server;
        netio_addr list[8], a;
        ptrdiff_t n, found = 0;
        CHECK_OK(netio_listen(&listener, texts[i], NULL));
        CHECK_OK(netio_local_addr(listener, &a));
        const char *name = at_port("localhost:%d", port_of(listener));
        n = netio_resolve(name, list, 8, NULL, -1);
        for (ptrdiff_t k = 0; k < n; k++)
            if (netio_addr_equal(&a, &list[k])) found = 1;
        if (found) {
            CHECK_OK(netio_connect(&client, name, NULL, 10000));
            CHECK_OK(netio_accept(&server, listener, NULL, 5000));
            check_linked(client, server);
            CHECK_OK(netio_close(&client));
            CHECK_OK(netio_close(&server));
        }
        CHECK_OK(netio_close(&listener));
    }
}

TEST(socket, a_dead_and_a_refusing_address_cost_one_head_start)
{
    black_hole hole;
    netio_socket keeper, listener, client, server;
    netio_socket_opts opts;
    uint64_t from;
    long opened, closed;
    int fds, refusing;
    black_hole_open(&hole);
    refusing = refusing_open(&keeper);
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    names_clear(&opts);
    names.list[names.count++] = hole.addr;
    names_add_port((uint16_t)refusing);
    names_add_port(port_of(listener));
    opts.stagger_ms = 100;
    fds = test_descriptors();
    opened = test_ops(NETIO_OP_OPEN);
    closed = test_ops(NETIO_OP_CLOSE);
    from = test_ms();
    CHECK_OK(netio_connect(&client, "some.name:1", &opts, 10000));
    CHECK_BETWEEN(95, 2000, test_ms() - from);
    CHECK_EQ(3, test_ops(NETIO_OP_OPEN) - opened);
    CHECK_EQ(2, test_ops(NETIO_OP_CLOSE) - closed);
    if (fds) CHECK_EQ(fds + 1, test_descriptors()); // the losers are gone
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_close(&keeper));
    black_hole_close(&hole);
}

TEST(socket, the_default_head_start_is_a_quarter_second)
{
    black_hole hole;
    netio_socket listener, client;
    netio_socket_opts opts;
    uint64_t from;
    black_hole_open(&hole);
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    names_clear(&opts);
    names.list[names.count++] = hole.addr;
    names_add_port(port_of(listener));
    from = test_ms();
    CHECK_OK(netio_connect(&client, "some.name:1", &opts, 10000));
    CHECK_BETWEEN(245, 3000, test_ms() - from);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&listener));
    black_hole_close(&hole);
}

TEST(socket, no_second_attempt_starts_when_the_first_answers)
{
    netio_socket keeper, listener, client;
    netio_socket_opts opts;
    long opened;
    int refusing = refusing_open(&keeper);
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    names_clear(&opts);
    names_add_port(port_of(listener));
    names_add_port((uint16_t)refusing);
    opts.stagger_ms = 2000;
    opened = test_ops(NETIO_OP_OPEN);
    CHECK_OK(netio_connect(&client, "some.name:1", &opts, 10000));
    CHECK_EQ(1, test_ops(NETIO_OP_OPEN) - opened);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_close(&keeper));
}

TEST(socket, the_errors_of_all_attempts_are_kept)
{
    netio_socket keeper[3], s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts;
    netio_error errors[7];
    netio_error zero;
    int before;
    memset(&zero, 0, sizeof zero);
    names_clear(&opts);
    for (int i = 0; i < 3; i++) names_add_port(refusing_open(&keeper[i]));
    opts.errors = errors;
    opts.error_cap = 6; // the seventh is not netio's
    memset(errors, 0xEE, sizeof errors);
    before = test_descriptors();
    CHECK_ERR(NETIO_ECONNREFUSED, netio_connect(&s, "some.name:1", &opts, 10000));
    CHECK_EQ(before, test_descriptors());
    CHECK(s == NETIO_INVALID_SOCKET);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(NETIO_ECONNREFUSED, errors[i].err);
        CHECK_EQ(NETIO_STAGE_CONNECT, errors[i].stage);
        CHECK(errors[i].text[0]);
        CHECK(memchr(errors[i].text, 0, sizeof errors[i].text) != NULL);
        CHECK(errors[i].os_code != 0);
        CHECK_EQ(NETIO_ECONNREFUSED, netio_error_from_os(errors[i].os_code));
        if (i > 0) CHECK(netio_addr_equal(&names.list[i - 1], &errors[i].addr));
    }
    for (int i = 4; i < 6; i++) CHECK_MEM(&zero, &errors[i], sizeof zero);
    memset(&zero, 0xEE, sizeof zero);
    CHECK_MEM(&zero, &errors[6], sizeof zero);
    for (int i = 0; i < 3; i++) CHECK_OK(netio_close(&keeper[i]));
}

TEST(socket, a_short_array_of_errors_keeps_the_verdict)
{
    netio_socket keeper[2], s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts;
    netio_error errors[3], guard;
    names_clear(&opts);
    for (int i = 0; i < 2; i++) names_add_port(refusing_open(&keeper[i]));
    opts.errors = errors;
    memset(&guard, 0xEE, sizeof guard);
    for (size_t cap = 0; cap < 3; cap++) {
        memset(errors, 0xEE, sizeof errors);
        opts.error_cap = cap;
        CHECK_ERR(NETIO_ECONNREFUSED, netio_connect(&s, "some.name:1", &opts, 10000));
        for (size_t i = 0; i < cap; i++) CHECK_EQ(NETIO_ECONNREFUSED, errors[i].err);
        CHECK_MEM(&guard, &errors[cap], sizeof guard);
    }
    for (int i = 0; i < 2; i++) CHECK_OK(netio_close(&keeper[i]));
}

TEST(socket, one_timeout_among_failures_is_a_timeout)
{
    black_hole hole;
    netio_socket keeper, s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts;
    netio_error errors[4];
    uint64_t from;
    int refusing;
    black_hole_open(&hole);
    refusing = refusing_open(&keeper);
    for (int order = 0; order < 2; order++) {
        names_clear(&opts);
        if (order == 0) names.list[names.count++] = hole.addr;
        names_add_port((uint16_t)refusing);
        if (order == 1) names.list[names.count++] = hole.addr;
        opts.errors = errors;
        opts.error_cap = 4;
        opts.stagger_ms = 20;
        from = test_ms();
        CHECK_ERR(NETIO_ETIMEDOUT, netio_connect(&s, "some.name:1", &opts, 600));
        CHECK_BETWEEN(599, 4000, test_ms() - from);
        CHECK_EQ(NETIO_ETIMEDOUT, errors[0].err);
        for (int i = 1; i <= 2; i++) {
            bool dead = netio_addr_equal(&hole.addr, &errors[i].addr);
            CHECK_EQ(dead ? NETIO_ETIMEDOUT : NETIO_ECONNREFUSED, errors[i].err);
            CHECK_EQ(NETIO_STAGE_CONNECT, errors[i].stage);
            CHECK(errors[i].text[0]);
        }
        CHECK(!netio_addr_equal(&errors[1].addr, &errors[2].addr));
        CHECK_EQ(0, errors[3].err);
    }
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_close(&keeper));
    black_hole_close(&hole);
}

TEST(socket, a_lookup_that_fails_says_so_in_the_verdict)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts;
    netio_error errors[2];
    static const int failures[] = {NETIO_EAI_NONAME, NETIO_EAI_AGAIN};
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        names_clear(&opts);
        names.err = failures[i];
        opts.errors = errors;
        opts.error_cap = 2;
        memset(errors, 0xEE, sizeof errors);
        CHECK_ERR(failures[i], netio_connect(&s, "some.name:1", &opts, 5000));
        CHECK_EQ(failures[i], errors[0].err);
        CHECK_EQ(NETIO_STAGE_RESOLVE, errors[0].stage);
        CHECK(errors[0].text[0]);
        CHECK_ERR(failures[i], netio_connect(&s, "some.name:1", &opts, -1));
    }
    names_clear(&opts); // no error, but no address either
    CHECK_ERR(NETIO_EAI_NONAME, netio_connect(&s, "some.name:1", &opts, 5000));
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_EQ(0, test_ops(NETIO_OP_OPEN));
}

// Answers when it is told to over a pair of sockets, which is late.
static netio_socket late_answer[2];

static ptrdiff_t late_resolve(void *user, const char *host, uint16_t port, netio_addr *out,
                              size_t cap)
{
    char c;
    (void)user, (void)host, (void)port, (void)out, (void)cap;
    netio_recv(late_answer[1], &c, 1, 10000);
    netio_send(late_answer[1], "x", 1, 5000);
    return NETIO_EAI_NONAME;
}

TEST(socket, the_deadline_covers_the_lookup)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    netio_error errors[2];
    long blocks = test_blocks();
    uint64_t from;
    char c;
    int err;
    CHECK_OK(netio_pair(late_answer, NETIO_STREAM));
    opts.resolve.resolver = late_resolve;
    opts.errors = errors;
    opts.error_cap = 2;
    from = test_ms();
    err = netio_connect(&s, "some.name:1", &opts, 100);
    from = test_ms() - from;
    if (err != NETIO_ENOTSUP) { // its thread must end before this test does
        CHECK_ERR(1, netio_send(late_answer[0], "x", 1, 5000));
        CHECK_ERR(1, netio_recv(late_answer[0], &c, 1, 10000));
        for (int i = 0; i < 5000 && test_blocks() > blocks; i++) test_sleep_ms(1);
    }
    CHECK_OK(netio_close(&late_answer[0]));
    CHECK_OK(netio_close(&late_answer[1]));
    if (err == NETIO_ENOTSUP) SKIP("built without threads: a bounded lookup is not supported");
    CHECK_ERR(NETIO_ETIMEDOUT, err);
    CHECK_BETWEEN(99, 3000, from);
    CHECK_EQ(NETIO_ETIMEDOUT, errors[0].err);
    CHECK_EQ(NETIO_STAGE_RESOLVE, errors[0].stage);
    CHECK(errors[0].text[0]);
    CHECK_EQ(blocks, test_blocks()); // nothing is left behind
}

TEST(socket, no_memory_for_a_lookup_is_enomem)
{
    netio_socket listener, s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts;
    int err = NETIO_ENOMEM;
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    names_clear(&opts);
    names_add_port(port_of(listener));
    for (long n = 1; n < 20 && err == NETIO_ENOMEM; n++) {
        test_alloc_fail_at(n);
        err = netio_connect(&s, "some.name:1", &opts, 10000);
    }
    test_alloc_fail_at(0);
    CHECK_OK(err); // once no allocation fails
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&listener));
}

TEST(socket, the_type_must_make_sense)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    int type;
    opts.type = NETIO_DGRAM;
    CHECK_ERR(NETIO_EINVAL, netio_listen(&s, "127.0.0.1:0", &opts)); // nothing to accept
    opts.type = 77;
    CHECK(netio_listen(&s, "127.0.0.1:0", &opts) < 0);
    CHECK(netio_bind(&s, "127.0.0.1:0", &opts) < 0);
    CHECK(netio_connect(&s, "127.0.0.1:9", &opts, 1000) < 0);
    opts.type = NETIO_SEQPACKET; // not over IP
    CHECK(netio_listen(&s, "127.0.0.1:0", &opts) < 0);
    CHECK(s == NETIO_INVALID_SOCKET);
    opts.type = NETIO_STREAM; // bound, not listening: a port kept for later
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", &opts));
    CHECK_OK(netio_get_option(s, NETIO_OPT_TYPE, &type));
    CHECK_EQ(NETIO_STREAM, type);
    CHECK(port_of(s) != 0);
    CHECK_OK(netio_close(&s));
}

TEST(socket, fallback_names_are_tried_too)
{
    netio_socket keeper, listener, client, server, s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    netio_error errors[4];
    int refusing = refusing_open(&keeper);
    const char *list[2];
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    list[0] = at_port("127.0.0.1:%d", refusing);
    list[1] = at_port("127.0.0.1:%d", port_of(listener));
    opts.fallback = list;
    opts.fallback_count = 2;
    CHECK_OK(netio_connect(&client, list[0], &opts, 10000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    if (!has_lookups) SKIP("built without threads: no lookup with a bounded time");
    // A name that does not resolve is no reason not to try the others.
    opts.resolve.resolver = names_resolve;
    memset(&names, 0, sizeof names);
    names.err = NETIO_EAI_NONAME;
    CHECK_OK(netio_connect(&client, "some.name:1", &opts, 10000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    opts.fallback_count = 1;
    opts.errors = errors;
    opts.error_cap = 4;
    CHECK(netio_connect(&s, "some.name:1", &opts, 10000) < 0);
    CHECK(errors[0].err < 0 && errors[0].text[0]);
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_close(&keeper));
}

TEST(socket, many_addresses_stay_within_the_limit)
{
    netio_socket keeper, s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts;
    static netio_error errors[NETIO_RESOLVE_MAX + 9];
    int refusing = refusing_open(&keeper), attempts = 0;
    names_clear(&opts);
    // 127.0.0.1 to 127.0.0.40: nobody listens on any of them.
    for (int i = 1; i <= NETIO_RESOLVE_MAX + 8; i++) {
        unsigned char ip[4] = {127, 0, 0, 0};
        ip[3] = (unsigned char)i;
        CHECK_OK(netio_addr_from_ip(&names.list[names.count++], ip, 4, (uint16_t)refusing));
    }
    opts.errors = errors;
    opts.error_cap = sizeof errors / sizeof errors[0];
    opts.stagger_ms = 1;
    memset(errors, 0xEE, sizeof errors);
    CHECK(netio_connect(&s, "some.name:1", &opts, 10000) < 0);
    for (size_t i = 1; i < opts.error_cap; i++) attempts += errors[i].err != 0;
    CHECK_BETWEEN(1, NETIO_RESOLVE_MAX, attempts);
    if (!test_under("wine")) CHECK_EQ(NETIO_RESOLVE_MAX, attempts);
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_close(&keeper));
}

//================================================================================================
// Waiting
//================================================================================================

typedef struct late_sender {
    netio_socket s;
    int after_ms;
    ptrdiff_t result;
} late_sender;

static void send_late(void *arg)
{
    late_sender *l = (late_sender *)arg;
    test_sleep_ms(l->after_ms);
    l->result = netio_send(l->s, "z", 1, 5000);
}

TEST(socket, wait_tells_readable_when_data_comes)
{
    netio_socket client, server;
    test_thread thread;
    late_sender late;
    uint64_t from;
    char c;
    int got;
    test_tcp_pair(&client, &server);
    late.s = server;
    late.after_ms = 50;
    from = test_ms();
    test_thread_start(&thread, send_late, &late);
    got = netio_wait(client, NETIO_EV_READ, 5000);
    from = test_ms() - from;
    test_thread_join(&thread);
    CHECK_ERR(1, late.result);
    CHECK_EQ(NETIO_EV_READ, got & (NETIO_EV_READ | NETIO_EV_WRITE));
    CHECK_BETWEEN(49, 3000, from);
    CHECK_ERR(1, netio_recv(client, &c, 1, 0));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(socket, wait_keeps_its_time_and_its_interest)
{
    netio_socket client, server;
    uint64_t from;
    int got;
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EINVAL, netio_wait(client, 0, 1000));
    CHECK_ERR(NETIO_EAGAIN, netio_wait(client, NETIO_EV_READ, 0));
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_wait(client, NETIO_EV_READ, 100));
    CHECK_BETWEEN(99, 2000, test_ms() - from);
    CHECK_EQ(NETIO_EV_WRITE, netio_wait(client, NETIO_EV_WRITE, 0));
    CHECK_EQ(NETIO_EV_WRITE, netio_wait(client, NETIO_EV_READ | NETIO_EV_WRITE, -1));
    CHECK_ERR(1, netio_send(server, "a", 1, 5000));
    CHECK_EQ(NETIO_EV_READ, netio_wait(client, NETIO_EV_READ, 5000) & ~NETIO_EV_HINT_EOF);
    got = netio_wait(client, NETIO_EV_READ | NETIO_EV_WRITE, 1000);
    CHECK_EQ(NETIO_EV_READ | NETIO_EV_WRITE, got & (NETIO_EV_READ | NETIO_EV_WRITE));
    CHECK_OK(netio_close(&server)); // the end of the stream makes it readable
    got = netio_wait(client, NETIO_EV_READ, 5000);
    CHECK_EQ(NETIO_EV_READ, got & (NETIO_EV_READ | NETIO_EV_WRITE));
    CHECK_OK(netio_close(&client));
}

//================================================================================================
// Whole lives
//================================================================================================

typedef struct page_server {
    netio_socket listener;
    int clients; // to serve before it ends
    int whole;   // replies that went out whole
    int err;     // of accept
} page_server;

static const char page[] = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nHello";

// Accept, read to the end marker, write, half-close, close: again and again, whoever vanishes.
static void serve_pages(void *arg)
{
    page_server *p = (page_server *)arg;
    for (int i = 0; i < p->clients; i++) {
        netio_socket s;
        char buf[512];
        size_t len = 0;
        ptrdiff_t n = 1;
        p->err = netio_accept(&s, p->listener, NULL, 10000);
        if (p->err < 0) return;
        while (len < sizeof buf - 1 && n > 0) {
            buf[len] = 0;
            if (strstr(buf, "\r\n\r\n")) break;
            n = netio_recv(s, buf + len, sizeof buf - 1 - len, 10000);
            if (n > 0) len += (size_t)n;
        }
        if (n > 0 && netio_send_all(s, page, sizeof page - 1, NULL, 10000) == 0 &&
            netio_close_gracefully(&s, 1000, 10000) == 0)
            p->whole++;
        if (s != NETIO_INVALID_SOCKET) netio_close(&s);
    }
}

static void fetch_page(const char *name)
{
    netio_socket s;
    char buf[256];
    size_t len = 0;
    ptrdiff_t n;
    CHECK_OK(netio_connect(&s, name, NULL, 10000));
    CHECK_OK(netio_set_option(s, NETIO_OPT_NODELAY, 1));
    CHECK_OK(netio_send_all(s, "GET / HTTP/1.0\r\n\r\n", 18, NULL, 5000));
    CHECK_OK(netio_shutdown(s, NETIO_SHUT_WRITE));
    while ((n = netio_recv(s, buf + len, sizeof buf - len, 10000)) > 0) len += (size_t)n;
    CHECK_ERR(NETIO_EOF, n);
    CHECK_EQ(sizeof page - 1, len);
    CHECK_MEM(page, buf, len);
    CHECK_OK(netio_close(&s));
}

TEST(socket, a_client_lives_from_name_to_close)
{
    page_server server = {0};
    test_thread thread;
    CHECK_OK(netio_listen(&server.listener, "127.0.0.1:0", NULL));
    server.clients = 1;
    test_thread_start(&thread, serve_pages, &server);
    fetch_page(at_port(has_lookups ? "localhost:%d" : "127.0.0.1:%d", port_of(server.listener)));
    test_thread_join(&thread);
    CHECK_EQ(1, server.whole);
    CHECK_OK(netio_close(&server.listener));
}

TEST(socket, a_server_goes_on_wherever_its_clients_vanish)
{
    page_server server = {0};
    test_thread thread;
    netio_socket s;
    char text[NETIO_ADDR_TEXT], c;
    test_listen(&server.listener, text, "127.0.0.1:0");
    server.clients = 7;
    test_thread_start(&thread, serve_pages, &server);
    CHECK_OK(netio_connect(&s, text, NULL, 5000)); // at once, both ways
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_connect(&s, text, NULL, 5000));
    CHECK_OK(netio_abort(&s));
    CHECK_OK(netio_connect(&s, text, NULL, 5000)); // in the middle of the request
    CHECK_OK(netio_send_all(s, "GET /", 5, NULL, 5000));
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_connect(&s, text, NULL, 5000));
    CHECK_OK(netio_send_all(s, "GET /", 5, NULL, 5000));
    CHECK_OK(netio_abort(&s));
    CHECK_OK(netio_connect(&s, text, NULL, 5000)); // before the reply
    CHECK_OK(netio_send_all(s, "GET / HTTP/1.0\r\n\r\n", 18, NULL, 5000));
    CHECK_OK(netio_abort(&s));
    CHECK_OK(netio_connect(&s, text, NULL, 5000)); // in the middle of the reply
    CHECK_OK(netio_send_all(s, "GET / HTTP/1.0\r\n\r\n", 18, NULL, 5000));
    CHECK_ERR(1, netio_recv(s, &c, 1, 5000));
    CHECK_OK(netio_abort(&s));
    fetch_page(text);
    test_thread_join(&thread);
    CHECK_OK(server.err);
    CHECK(server.whole >= 1);
    CHECK_OK(netio_close(&server.listener));
}

TEST(socket, layers_below_the_poller_never_touch_the_heap)
{
    long allocs = test_allocs();
    int rounds = slow_machine() ? 2000 : 100000;
    netio_socket listener, client, server, pair[2], datagram;
    char text[NETIO_ADDR_TEXT], buf[64] = {0};
    netio_addr a;
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_connect(&client, text, NULL, 5000)); // a bounded time, but no name to look up
    CHECK_OK(netio_accept(&server, listener, &a, 5000));
    CHECK_OK(netio_set_option(client, NETIO_OPT_NODELAY, 1));
    for (int i = 0; i < rounds; i++) {
        CHECK_ERR(64, netio_send(client, buf, 64, 5000));
        CHECK_OK(netio_recv_exact(server, buf, 64, NULL, 5000));
        CHECK_ERR(64, netio_send(server, buf, 64, 5000));
        CHECK_OK(netio_recv_exact(client, buf, 64, NULL, 5000));
    }
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    CHECK_OK(netio_bind(&datagram, ":0", NULL));
    CHECK(netio_option_supported(NETIO_OPT_NODELAY));
    netio_set_keepalive(client, 60, 5, 3); // whether it can: see test_option.c
    CHECK_ERR(NETIO_ETIMEDOUT, netio_wait(pair[0], NETIO_EV_READ, 1));
    CHECK_OK(netio_close(&datagram));
    CHECK_OK(netio_close(&pair[0]));
    CHECK_OK(netio_close(&pair[1]));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close_gracefully(&server, 100, 5000));
    CHECK_OK(netio_close(&listener));
    CHECK_EQ(allocs, test_allocs());
}

//================================================================================================
// Any other family, by number
//================================================================================================

TEST(socket, unknown_families_and_types_are_refused_by_name)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    CHECK_ERR(NETIO_EAFNOSUPPORT, netio_open(&s, 250, SOCK_STREAM, 0));
    CHECK(netio_os_error() != 0);
    CHECK_ERR(NETIO_ENOTSUP, netio_open(&s, AF_INET, 77, 0));
    CHECK_ERR(NETIO_ENOTSUP, netio_open(&s, AF_INET, SOCK_STREAM, IPPROTO_UDP));
    CHECK(netio_os_error() != 0);
    CHECK(s == NETIO_INVALID_SOCKET);
}

#ifdef __linux__
// Poll it like any other: netio_wait, and a poller of the backend under test.
static unsigned poll_once(netio_socket s, unsigned events, int timeout_ms)
{
    netio_poller *p;
    netio_event e[2];
    ptrdiff_t n;
    CHECK_OK(netio_poller_open(&p, test_backend()));
    CHECK_OK(netio_poller_add(p, s, events, NULL));
    n = netio_poller_wait(p, e, 2, timeout_ms);
    netio_poller_close(p);
    CHECK(n == 0 || n == 1);
    return n == 1 ? e[0].events & (NETIO_EV_READ | NETIO_EV_WRITE) : 0;
}

#ifdef HAS_NETLINK
TEST(socket, netlink_by_number_asks_and_answers)
{
    struct {
        struct nlmsghdr head;
        struct rtgenmsg body;
    } ask;
    struct sockaddr_nl to;
    netio_socket s;
    netio_addr a, from;
    unsigned char buf[8192];
    struct nlmsghdr answer;
    ptrdiff_t n;
    int type;
    if (test_under("qemu")) SKIP("qemu-user translates little of netlink");
    CHECK_OK(netio_open(&s, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    CHECK(os_nonblocking(s));
    CHECK(!os_inheritable(s));
    memset(&to, 0, sizeof to);
    to.nl_family = AF_NETLINK;
    CHECK_OK(netio_addr_from_sockaddr(&a, &to, sizeof to));
    CHECK_EQ(-AF_NETLINK, netio_addr_family(&a));
    CHECK_EQ(0, bind(s, (const struct sockaddr *)&to, sizeof to));
    CHECK_ERR(NETIO_EAGAIN, netio_wait(s, NETIO_EV_READ, 0));
    CHECK_EQ(0, poll_once(s, NETIO_EV_READ, 0));
    memset(&ask, 0, sizeof ask);
    ask.head.nlmsg_len = sizeof ask;
    ask.head.nlmsg_type = RTM_GETLINK;
    ask.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    ask.body.rtgen_family = AF_UNSPEC;
    CHECK_ERR(sizeof ask, netio_sendto(s, &ask, sizeof ask, &a, 1000));
    CHECK_EQ(NETIO_EV_READ, poll_once(s, NETIO_EV_READ, 5000));
    n = netio_recvfrom(s, buf, sizeof buf, &from, 5000);
    CHECK(n >= (ptrdiff_t)sizeof answer);
    memcpy(&answer, buf, sizeof answer);
    CHECK_EQ(RTM_NEWLINK, answer.nlmsg_type);
    CHECK_EQ(-AF_NETLINK, netio_addr_family(&from));
    CHECK_OK(netio_get_option(s, NETIO_OPT_TYPE, &type));
    CHECK_EQ(-SOCK_RAW, type);
    CHECK_OK(netio_get_option(s, NETIO_OPT_FAMILY, &type));
    CHECK_EQ(-AF_NETLINK, type);
    CHECK_OK(netio_close(&s));
}
#else
TEST(socket, netlink_by_number_asks_and_answers) { SKIP("built without the kernel's headers"); }
#endif

TEST(socket, other_families_open_and_poll_or_say_why_not)
{
    // clang-format off
    static const struct { const char *name; int family, type, protocol; } kinds[] = {
        {"packet", AF_PACKET, SOCK_DGRAM, 0}, {"vsock", AF_VSOCK, SOCK_STREAM, 0},
        {"udp-lite", AF_INET, SOCK_DGRAM, 136}, {"icmp", AF_INET, SOCK_DGRAM, IPPROTO_ICMP},
        {"raw icmp", AF_INET, SOCK_RAW, IPPROTO_ICMP}, {"sctp", AF_INET, SOCK_STREAM, 132},
        {"bluetooth", AF_BLUETOOTH, SOCK_STREAM, 3},
    };
    // clang-format on
    int opened = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        netio_socket s = NETIO_INVALID_SOCKET;
        int err = netio_open(&s, kinds[i].family, kinds[i].type, kinds[i].protocol);
        if (err < 0) {
            if (err != NETIO_EAFNOSUPPORT && err != NETIO_ENOTSUP && err != NETIO_EACCES)
                test_fail(__FILE__, __LINE__, "%s: %s", kinds[i].name, netio_errname(err));
            CHECK(netio_os_error() != 0);
            CHECK(s == NETIO_INVALID_SOCKET);
            continue;
        }
        opened++;
        CHECK(os_nonblocking(s));
        CHECK(!os_inheritable(s));
        int ready = netio_wait(s, NETIO_EV_READ, 0);
        CHECK(ready > 0 || ready == NETIO_EAGAIN);
        poll_once(s, NETIO_EV_READ, 0);
        CHECK_OK(netio_close(&s));
    }
    if (opened == 0) SKIP("none of these families is in this kernel");
}

TEST(socket, udp_lite_by_number_carries_datagrams)
{
    netio_socket a, b;
    netio_addr to, from;
    size_t len;
    char buf[16];
    if (netio_open(&a, AF_INET, SOCK_DGRAM, 136) < 0) SKIP("no UDP-Lite in this kernel");
    CHECK_OK(netio_open(&b, AF_INET, SOCK_DGRAM, 136));
    CHECK_OK(netio_addr_loopback(&to, NETIO_IPV4, 0));
    const void *raw = netio_addr_sockaddr(&to, &len);
    CHECK_EQ(0, bind(b, (const struct sockaddr *)raw, (socklen_t)len));
    CHECK_OK(netio_local_addr(b, &to));
    CHECK_ERR(5, netio_sendto(a, "hello", 5, &to, 1000));
    CHECK_EQ(NETIO_EV_READ, poll_once(b, NETIO_EV_READ, 5000));
    CHECK_ERR(5, netio_recvfrom(b, buf, sizeof buf, &from, 5000));
    CHECK_MEM("hello", buf, 5);
    CHECK_EQ(NETIO_IPV4, netio_addr_family(&from));
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_close(&b));
}
#else
TEST(socket, netlink_by_number_asks_and_answers) { SKIP("Linux only"); }
TEST(socket, other_families_open_and_poll_or_say_why_not) { SKIP("Linux only"); }
TEST(socket, udp_lite_by_number_carries_datagrams) { SKIP("Linux only"); }
#endif

//================================================================================================

static const test_case cases[] = {
    T(socket, tcp_echo_returns_the_same_bytes),
    T(socket, wrong_order_is_an_error_and_no_crash),
    T(socket, close_leaves_the_invalid_value_and_others_alone),
    T(socket, every_call_on_the_invalid_value_is_ebadf),
    T(socket, a_closed_number_is_ebadf),
    T(socket, sockets_are_nonblocking_and_not_inherited_from_birth),
    T(socket, a_child_process_inherits_only_what_was_asked_for),
    T(socket, an_inherited_listener_can_be_adopted),
    T(socket, a_raw_socket_is_adopted_used_and_released),
    T(socket, a_descriptor_that_is_no_socket_is_enotsock),
    T(socket, every_text_form_listens_and_connects),
    T(socket, bad_text_is_einval_before_any_socket_exists),
    T(socket, family_and_text_must_agree),
    T(socket, port_zero_gives_different_ports),
    T(socket, an_unbound_socket_has_port_zero),
    T(socket, a_live_port_is_taken),
    T(socket, a_listener_restarts_while_old_connections_linger),
    T(socket, exclusive_means_the_same_rule_or_a_stricter_one),
    T(socket, a_foreign_address_cannot_be_listened_on),
    T(socket, a_low_port_needs_the_right_to_it),
    T(socket, settings_apply_before_listening_in_any_order),
    T(socket, settings_apply_to_dialed_and_datagram_sockets),
    T(socket, a_setting_that_fails_fails_the_call),
    T(socket, the_kernel_gets_the_backlog_asked_for),
    T(socket, a_short_backlog_loses_no_client_that_connected),
    T(socket, dual_stack_listener_takes_both_families_and_unmaps),
    T(socket, v6_only_listener_refuses_ipv4),
    T(socket, balance_spreads_clients_or_says_it_cannot),
    T(socket, accept_has_three_results),
    T(socket, accept_times_out_on_time),
    T(socket, accept_tells_the_peer_and_both_ends_agree),
    T(socket, a_client_that_left_does_not_stop_the_listener),
    T(socket, accept_at_the_descriptor_limit_returns_and_recovers),
    T(socket, running_out_of_descriptors_is_emfile_everywhere_and_leaks_none),
    T(socket, refused_is_named_refused_at_once),
    T(socket, connect_times_out_on_time_and_closes),
    T(socket, a_signal_storm_lengthens_no_connect),
    T(socket, connect_by_hand_starts_waits_and_finishes),
    T(socket, connect_by_hand_to_a_closed_port_is_refused),
    T(socket, connect_by_hand_that_gets_no_answer_can_be_dropped),
    T(socket, connect_start_judges_its_address),
    T(socket, the_source_address_can_be_chosen),
    T(socket, a_socket_never_connects_to_itself),
    T(socket, dialing_a_name_whose_first_address_refuses),
    T(socket, dialing_localhost_reaches_whichever_family_listens),
    T(socket, a_dead_and_a_refusing_address_cost_one_head_start),
    T(socket, the_default_head_start_is_a_quarter_second),
    T(socket, no_second_attempt_starts_when_the_first_answers),
    T(socket, the_errors_of_all_attempts_are_kept),
    T(socket, a_short_array_of_errors_keeps_the_verdict),
    T(socket, one_timeout_among_failures_is_a_timeout),
    T(socket, a_lookup_that_fails_says_so_in_the_verdict),
    T(socket, the_deadline_covers_the_lookup),
    T(socket, no_memory_for_a_lookup_is_enomem),
    T(socket, the_type_must_make_sense),
    T(socket, fallback_names_are_tried_too),
    T(socket, many_addresses_stay_within_the_limit),
    T(socket, wait_tells_readable_when_data_comes),
    T(socket, wait_keeps_its_time_and_its_interest),
    T(socket, a_client_lives_from_name_to_close),
    T(socket, a_server_goes_on_wherever_its_clients_vanish),
    T(socket, layers_below_the_poller_never_touch_the_heap),
    T(socket, unknown_families_and_types_are_refused_by_name),
    T(socket, netlink_by_number_asks_and_answers),
    T(socket, other_families_open_and_poll_or_say_why_not),
    T(socket, udp_lite_by_number_carries_datagrams),
};

// Not TEST_MAIN: run_self comes back here with arguments of its own.
int main(int argc, char **argv)
{
    self = argv[0];
    if (argc > 2 && strcmp(argv[1], "--list-open") == 0) return child_list(argc - 2, argv + 2);
    if (argc > 2 && strcmp(argv[1], "--serve") == 0) return child_serve(argv + 2);
    return test_main("socket", cases, sizeof cases / sizeof cases[0], argc, argv);
}
