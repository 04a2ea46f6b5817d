// Errors: names and texts, the OS's codes, and each condition provoked on real sockets: the same
// netio error on every OS, with the OS's own number behind it.
#ifdef _WIN32
#include <winsock2.h>
#include <windows.h>
#elif !defined(_GNU_SOURCE)
#define _GNU_SOURCE // unshare under -std=c99
#endif
#include "test.h"

#include <limits.h>

#ifndef _WIN32
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

#ifdef _WIN32
#define OS(name) WSA##name
static void set_os_error(int code) { WSASetLastError(code); }
#else
#define OS(name) name
static void set_os_error(int code) { errno = code; }
#endif

//================================================================================================
// Names and texts
//================================================================================================

typedef struct error_row {
    int err;
    const char *name;
} error_row;

// clang-format off
#define E(name) {NETIO_##name, #name}
static const error_row all[] = {
    E(EAGAIN), E(EOF), E(ETIMEDOUT), E(ECANCELED), E(EINPROGRESS),
    E(EINVAL), E(ESTALE), E(EBADF), E(ENOTSOCK), E(ENOTSUP), E(EEXIST), E(ENOENT), E(ENOTCONN),
    E(EISCONN), E(EPIPE), E(ENAMETOOLONG),
    E(ENOMEM), E(ENOBUFS), E(EMFILE), E(EMSGSIZE), E(ENOSPC), E(EBUSY),
    E(EACCES), E(EADDRINUSE), E(EADDRNOTAVAIL), E(EAFNOSUPPORT), E(EAI_NONAME), E(EAI_AGAIN),
    E(ECONNREFUSED), E(ECONNRESET), E(ECONNABORTED), E(EHOSTUNREACH), E(ENETUNREACH),
    E(ENETDOWN), E(ENODEV),
    E(EPROTO), E(EBADMSG), E(EILSEQ), E(ETRUNCATED), E(ETLS), E(EIO),
};
// clang-format on

static bool is_error(ptrdiff_t err)
{
    for (size_t i = 0; i < COUNT(all); i++)
        if (all[i].err == err) return true;
    return false;
}

TEST(error, every_error_has_a_name_of_its_own)
{
    for (size_t i = 0; i < COUNT(all); i++) {
        CHECK(all[i].err < 0);
        CHECK_STR(all[i].name, netio_errname(all[i].err));
        for (size_t k = 0; k < i; k++) CHECK(all[i].err != all[k].err);
    }
}

TEST(error, every_error_has_a_text_of_its_own)
{
    for (size_t i = 0; i < COUNT(all); i++) {
        const char *text = netio_strerror(all[i].err);
        CHECK(text[0] != 0);
        CHECK(strcmp(text, netio_strerror(1)) != 0);
        CHECK(strcmp(text, all[i].name) != 0);
        for (const char *c = text; *c; c++) CHECK(*c >= ' ' && *c <= '~');
        for (size_t k = 0; k < i; k++)
            if (strcmp(text, netio_strerror(all[k].err)) == 0)
                test_fail(__FILE__, __LINE__, "%s and %s say the same: %s", all[i].name,
                          all[k].name, text);
    }
}

TEST(error, success_has_a_name_and_a_text)
{
    CHECK(netio_errname(0)[0] != 0);
    CHECK(netio_strerror(0)[0] != 0);
    for (size_t i = 0; i < COUNT(all); i++) {
        CHECK(strcmp(netio_errname(0), all[i].name) != 0);
        CHECK(strcmp(netio_strerror(0), netio_strerror(all[i].err)) != 0);
    }
}

TEST(error, other_numbers_are_unknown)
{
    static const ptrdiff_t distant[] = {INT_MIN, INT_MAX, PTRDIFF_MIN, PTRDIFF_MAX, 65536, -65536};
    for (ptrdiff_t err = -1000; err <= 1000; err++) {
        if (err == 0 || is_error(err)) continue;
        CHECK_STR("EUNKNOWN", netio_errname(err));
        CHECK_STR("unknown error", netio_strerror(err));
    }
    for (size_t i = 0; i < COUNT(distant); i++) {
        CHECK_STR("EUNKNOWN", netio_errname(distant[i]));
        CHECK_STR("unknown error", netio_strerror(distant[i]));
    }
    if (sizeof(ptrdiff_t) > 4) { // its low 32 bits alone are NETIO_EINVAL
        ptrdiff_t high = (ptrdiff_t)(NETIO_EINVAL - ((int64_t)1 << 32));
        CHECK_STR("EUNKNOWN", netio_errname(high));
    }
}

//================================================================================================
// The OS's codes
//================================================================================================

typedef struct code_row {
    int code, err;
} code_row;

// clang-format off
#ifdef _WIN32
static const code_row codes[] = {
    {WSAEWOULDBLOCK, NETIO_EAGAIN}, {WSAETIMEDOUT, NETIO_ETIMEDOUT}, {WSAEINVAL, NETIO_EINVAL},
    {WSAENOTSOCK, NETIO_EBADF}, {WSAEBADF, NETIO_EBADF}, {WSAEOPNOTSUPP, NETIO_ENOTSUP},
    {WSAENOTCONN, NETIO_ENOTCONN}, {WSAEISCONN, NETIO_EISCONN}, {WSAESHUTDOWN, NETIO_EPIPE},
    {WSAENAMETOOLONG, NETIO_ENAMETOOLONG}, {WSAENOBUFS, NETIO_ENOBUFS},
    {WSAEMFILE, NETIO_EMFILE}, {WSAEMSGSIZE, NETIO_EMSGSIZE}, {WSAEACCES, NETIO_EACCES},
    {WSAEADDRINUSE, NETIO_EADDRINUSE}, {WSAEADDRNOTAVAIL, NETIO_EADDRNOTAVAIL},
    {WSAEAFNOSUPPORT, NETIO_EAFNOSUPPORT}, {WSAECONNREFUSED, NETIO_ECONNREFUSED},
    {WSAECONNRESET, NETIO_ECONNRESET}, {WSAECONNABORTED, NETIO_ECONNABORTED},
    {WSAEHOSTUNREACH, NETIO_EHOSTUNREACH}, {WSAENETUNREACH, NETIO_ENETUNREACH},
    {WSAENETDOWN, NETIO_ENETDOWN}, {WSAEPROTONOSUPPORT, NETIO_ENOTSUP},
    {WSAESOCKTNOSUPPORT, NETIO_ENOTSUP}, {WSAENOPROTOOPT, NETIO_ENOTSUP},
};
#else
static const code_row codes[] = {
    {EAGAIN, NETIO_EAGAIN}, {EWOULDBLOCK, NETIO_EAGAIN}, {ETIMEDOUT, NETIO_ETIMEDOUT},
    {ECANCELED, NETIO_ECANCELED}, {EINPROGRESS, NETIO_EINPROGRESS}, {EINVAL, NETIO_EINVAL},
    {EBADF, NETIO_EBADF}, {ENOTSOCK, NETIO_ENOTSOCK}, {EOPNOTSUPP, NETIO_ENOTSUP},
    {EPROTONOSUPPORT, NETIO_ENOTSUP}, {ENOPROTOOPT, NETIO_ENOTSUP}, {ENOSYS, NETIO_ENOTSUP},
    {EEXIST, NETIO_EEXIST}, {ENOENT, NETIO_ENOENT}, {ENOTCONN, NETIO_ENOTCONN},
    {EISCONN, NETIO_EISCONN}, {EPIPE, NETIO_EPIPE}, {ENAMETOOLONG, NETIO_ENAMETOOLONG},
    {ENOMEM, NETIO_ENOMEM}, {ENOBUFS, NETIO_ENOBUFS}, {EMFILE, NETIO_EMFILE},
    {ENFILE, NETIO_EMFILE}, {EMSGSIZE, NETIO_EMSGSIZE}, {EACCES, NETIO_EACCES},
    {EPERM, NETIO_EACCES}, {EADDRINUSE, NETIO_EADDRINUSE}, {EADDRNOTAVAIL, NETIO_EADDRNOTAVAIL},
    {EAFNOSUPPORT, NETIO_EAFNOSUPPORT}, {ECONNREFUSED, NETIO_ECONNREFUSED},
    {ECONNRESET, NETIO_ECONNRESET}, {ECONNABORTED, NETIO_ECONNABORTED},
    {EHOSTUNREACH, NETIO_EHOSTUNREACH}, {ENETUNREACH, NETIO_ENETUNREACH},
    {ENETDOWN, NETIO_ENETDOWN}, {ENODEV, NETIO_ENODEV}, {EIO, NETIO_EIO},
};
#endif
// clang-format on

TEST(error, os_codes_map_to_their_names)
{
    for (size_t i = 0; i < COUNT(codes); i++) {
        int err = netio_error_from_os(codes[i].code);
        if (err != codes[i].err)
            test_fail(__FILE__, __LINE__, "OS code %d: want %s, got %s", codes[i].code,
                      netio_errname(codes[i].err), netio_errname(err));
    }
}

TEST(error, every_os_code_is_an_error_and_unknown_ones_are_eio)
{
    static const int unknown[] = {INT_MAX, INT_MIN, -1, 123456, 98765, 32000};
    CHECK_EQ(0, netio_error_from_os(0));
    for (int code = 1; code < 20000; code++) CHECK(is_error(netio_error_from_os(code)));
    for (size_t i = 0; i < COUNT(unknown); i++)
        CHECK_ERR(NETIO_EIO, netio_error_from_os(unknown[i]));
}

TEST(error, os_error_is_the_os_own_slot)
{
    static const int numbers[] = {OS(ECONNREFUSED), OS(EINVAL), 123456, 0};
    for (size_t i = 0; i < COUNT(numbers); i++) {
        set_os_error(numbers[i]);
        CHECK_EQ(numbers[i], netio_os_error()); // unknown numbers stay what they are
        CHECK_EQ(numbers[i], netio_os_error()); // asking does not change it
    }
}

TEST(error, texts_do_not_touch_the_os_error)
{
    set_os_error(OS(ECONNREFUSED));
    netio_strerror(NETIO_EINVAL);
    netio_errname(NETIO_EINVAL);
    netio_error_from_os(OS(EINVAL));
    netio_error_from_os(123456);
    CHECK_EQ(OS(ECONNREFUSED), netio_os_error());
}

//================================================================================================
// Provoked on real sockets
//================================================================================================

// The call's error by name, and the OS's number that netio's clean-up must not have lost.
#define PROVOKE(want, os, call)                                                                    \
    do {                                                                                           \
        ptrdiff_t got_;                                                                            \
        int os_;                                                                                   \
        set_os_error(0);                                                                           \
        got_ = (call);                                                                             \
        os_ = netio_os_error();                                                                    \
        if (got_ != (want) || os_ != (os))                                                         \
            test_fail(__FILE__, __LINE__, "%s: want %s, os %d; got %s, os %d", #call,              \
                      netio_errname(want), (os), netio_errname(got_), os_);                        \
    } while (0)

// An address of this machine on which nobody listens.
static void closed_port(char text[NETIO_ADDR_TEXT])
{
    netio_socket s;
    test_listen(&s, text, "127.0.0.1:0");
    CHECK_OK(netio_close(&s));
}

TEST(error, closed_port_is_econnrefused)
{
    char text[NETIO_ADDR_TEXT];
    netio_socket s;
    closed_port(text);
    PROVOKE(NETIO_ECONNREFUSED, OS(ECONNREFUSED), netio_connect(&s, text, NULL, 10000));
}

TEST(error, closed_port_tells_its_whole_story)
{
    char text[NETIO_ADDR_TEXT];
    netio_socket s;
    netio_error e[3];
    netio_addr a;
    netio_socket_opts opts = {0};
    closed_port(text);
    CHECK_OK(netio_addr_parse(&a, text, strlen(text)));
    memset(e, 0xC7, sizeof e);
    opts.errors = e;
    opts.error_cap = COUNT(e);
    CHECK_ERR(NETIO_ECONNREFUSED, netio_connect(&s, text, &opts, 10000));
    for (size_t i = 0; i < 2; i++) { // the verdict, then the one attempt
        CHECK_ERR(NETIO_ECONNREFUSED, e[i].err);
        CHECK_EQ(NETIO_STAGE_CONNECT, e[i].stage);
        CHECK_EQ(OS(ECONNREFUSED), e[i].os_code);
        CHECK(netio_addr_equal(&a, &e[i].addr));
        CHECK(e[i].text[0] != 0 && memchr(e[i].text, 0, sizeof e[i].text) != NULL);
        CHECK_EQ(0, e[i].lib_code);
    }
    CHECK_EQ(0, e[2].err); // not needed: zeroed
    CHECK_EQ(0, e[2].text[0]);
    CHECK_EQ(0, netio_addr_family(&e[2].addr));
}

TEST(error, taken_port_is_eaddrinuse)
{
    char text[NETIO_ADDR_TEXT];
    netio_socket listener, s;
    netio_addr a;
    test_listen(&listener, text, "127.0.0.1:0");
    PROVOKE(NETIO_EADDRINUSE, OS(EADDRINUSE), netio_listen(&s, text, NULL));
    CHECK_OK(netio_close(&listener));

    CHECK_OK(netio_bind(&listener, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK(netio_addr_format(&a, text, sizeof text) > 0);
    PROVOKE(NETIO_EADDRINUSE, OS(EADDRINUSE), netio_bind(&s, text, NULL));
    CHECK_OK(netio_close(&listener));
}

TEST(error, reset_is_econnreset)
{
    netio_socket client, server;
    char byte;
    ptrdiff_t n;
    int os;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_abort(&server));
    n = netio_recv(client, &byte, 1, 5000);
    os = netio_os_error();
    if (test_under("wine") && n == NETIO_EOF) { // Wine says so after a reset
        netio_close(&client);
        SKIP("Wine reports a reset as the stream's end");
    }
    CHECK_ERR(NETIO_ECONNRESET, n);
    CHECK_EQ(OS(ECONNRESET), os);
    CHECK_OK(netio_close(&client));
}

TEST(error, write_after_shutdown_is_epipe)
{
    netio_socket client, server;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE));
    CHECK_ERR(NETIO_EPIPE, netio_send(client, "x", 1, 1000));
    CHECK(netio_os_error() != 0);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(error, end_of_stream_nothing_now_and_time_over)
{
    netio_socket client, server;
    char byte;
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EAGAIN, netio_recv(client, &byte, 1, 0));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(client, &byte, 1, 10));
    CHECK_OK(netio_close(&server));
    CHECK_ERR(NETIO_EOF, netio_recv(client, &byte, 1, 5000));
    CHECK_OK(netio_close(&client));
}

TEST(error, bad_arguments_are_einval)
{
    netio_socket client, server, s = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    netio_addr none;
    char byte;
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EINVAL, netio_recv(client, NULL, 4, 0));
    CHECK_ERR(NETIO_EINVAL, netio_send(client, NULL, 4, 0));
    CHECK_ERR(NETIO_EINVAL, netio_wait(client, 0, 0));
    CHECK_ERR(NETIO_EINVAL, netio_accept(&s, client, NULL, 0));
    CHECK_ERR(NETIO_EINVAL, netio_shutdown(client, 99));
    CHECK_ERR(NETIO_EINVAL, netio_listen(&s, "nonsense", NULL));
    CHECK_ERR(NETIO_EINVAL, netio_listen(&s, "127.0.0.1:99999", NULL));
    CHECK_ERR(NETIO_EINVAL, netio_connect(&s, "1.2.3:80", NULL, 0));
    opts.backlog = -1;
    CHECK_ERR(NETIO_EINVAL, netio_listen(&s, "127.0.0.1:0", &opts));
    memset(&none, 0, sizeof none);
    CHECK_ERR(NETIO_EINVAL, netio_connect_start(&s, &none, NULL));
    CHECK(s == NETIO_INVALID_SOCKET); // an output is written on success only
    CHECK_ERR(NETIO_EAGAIN, netio_recv(client, &byte, 1, 0)); // and the socket is as it was
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(error, the_invalid_socket_is_ebadf)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_addr a;
    char byte = 0;
    CHECK_ERR(NETIO_EBADF, netio_close(&s));
    CHECK_ERR(NETIO_EBADF, netio_recv(s, &byte, 1, 0));
    CHECK_ERR(NETIO_EBADF, netio_recv(s, &byte, 1, 10));
    CHECK_ERR(NETIO_EBADF, netio_send(s, &byte, 1, 0));
    CHECK_ERR(NETIO_EBADF, netio_local_addr(s, &a));
    CHECK_ERR(NETIO_EBADF, netio_peer_addr(s, &a));
    CHECK_ERR(NETIO_EBADF, netio_wait(s, NETIO_EV_READ, 0));
    CHECK_ERR(NETIO_EBADF, netio_shutdown(s, NETIO_SHUT_BOTH));
}

TEST(error, unconnected_is_enotconn)
{
    netio_socket s;
    netio_addr a;
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    PROVOKE(NETIO_ENOTCONN, OS(ENOTCONN), netio_peer_addr(s, &a));
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_listen(&s, "127.0.0.1:0", NULL));
    PROVOKE(NETIO_ENOTCONN, OS(ENOTCONN), netio_peer_addr(s, &a));
    CHECK_OK(netio_close(&s));
}

TEST(error, an_address_of_another_machine_is_eaddrnotavail)
{
    netio_socket s;
    PROVOKE(NETIO_EADDRNOTAVAIL, OS(EADDRNOTAVAIL), netio_listen(&s, "192.0.2.1:0", NULL));
    if (test_under("wine")) return; // Wine binds a datagram socket to any address
    PROVOKE(NETIO_EADDRNOTAVAIL, OS(EADDRNOTAVAIL), netio_bind(&s, "192.0.2.1:0", NULL));
}

TEST(error, an_oversized_datagram_is_emsgsize)
{
    char *big = (char *)calloc(1, 70000);
    netio_socket s;
    netio_addr a;
    CHECK(big != NULL);
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(s, &a));
    PROVOKE(NETIO_EMSGSIZE, OS(EMSGSIZE), netio_sendto(s, big, 70000, &a, 1000));
    CHECK_OK(netio_close(&s));
    free(big);
}

TEST(error, an_unknown_family_is_eafnosupport)
{
    netio_socket s;
    CHECK_ERR(NETIO_EAFNOSUPPORT, netio_open(&s, 12345, 1, 0));
    CHECK_EQ(OS(EAFNOSUPPORT), netio_os_error());
}

static void fail_elsewhere(void *arg)
{
    netio_socket s;
    *(int *)arg = netio_listen(&s, "192.0.2.1:0", NULL);
}

TEST(error, os_error_is_per_thread)
{
    char text[NETIO_ADDR_TEXT];
    netio_socket listener, s;
    test_thread t;
    int there = 0, err, before, after;
    test_listen(&listener, text, "127.0.0.1:0");
    err = netio_listen(&s, text, NULL);
    before = netio_os_error();
    test_thread_start(&t, fail_elsewhere, &there);
    test_thread_join(&t);
    // Starting and joining a thread may touch the slot itself: what must not be there is the
    // other thread's code.
    after = netio_os_error();
    CHECK_OK(netio_close(&listener));
    CHECK_ERR(NETIO_EADDRINUSE, err);
    CHECK_EQ(OS(EADDRINUSE), before);
    CHECK_ERR(NETIO_EADDRNOTAVAIL, there);
    CHECK(after != OS(EADDRNOTAVAIL));
}

#if defined(_WIN32) || defined(NETIO_NO_UNIX)
TEST(error, unix_paths_give_the_file_systems_errors) { SKIP("no Unix paths in this build"); }
#else
TEST(error, unix_paths_give_the_file_systems_errors)
{
    char text[400];
    netio_socket s;
    int fd;
    snprintf(text, sizeof text, "unix:%s", test_path("nobody.sock"));
    PROVOKE(NETIO_ENOENT, ENOENT, netio_connect(&s, text, NULL, 1000));
    CHECK_OK(netio_listen(&s, text, NULL));
    CHECK_OK(netio_close(&s)); // the file stays
    PROVOKE(NETIO_ECONNREFUSED, ECONNREFUSED, netio_connect(&s, text, NULL, 1000));
    snprintf(text, sizeof text, "unix:%s/x.sock", test_path("no-such-directory"));
    PROVOKE(NETIO_ENOENT, ENOENT, netio_listen(&s, text, NULL));
    fd = open(test_path("file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    snprintf(text, sizeof text, "unix:%s", test_path("file"));
    CHECK_ERR(NETIO_EINVAL, netio_listen(&s, text, NULL)); // a file that is no socket stays
    CHECK_EQ(0, access(test_path("file"), F_OK));
}
#endif

#ifdef _WIN32
TEST(error, a_file_is_enotsock_and_a_closed_number_ebadf) { SKIP("POSIX only"); }
TEST(error, no_descriptor_left_is_emfile) { SKIP("no such limit on Windows"); }
TEST(error, a_privileged_port_is_eacces) { SKIP("no privileged ports on Windows"); }
#else
TEST(error, a_file_is_enotsock_and_a_closed_number_ebadf)
{
    int fds[2];
    char byte = 0;
    CHECK_EQ(0, pipe(fds));
    PROVOKE(NETIO_ENOTSOCK, ENOTSOCK, netio_recv(fds[0], &byte, 1, 0));
    PROVOKE(NETIO_ENOTSOCK, ENOTSOCK, netio_send(fds[1], &byte, 1, 0));
    close(fds[0]);
    close(fds[1]);
    PROVOKE(NETIO_EBADF, EBADF, netio_recv(1000000, &byte, 1, 0));
    PROVOKE(NETIO_EBADF, EBADF, netio_recv(1000000, &byte, 1, 10));
    PROVOKE(NETIO_EBADF, EBADF, netio_send(1000000, &byte, 1, 0));
}

TEST(error, no_descriptor_left_is_emfile)
{
    struct rlimit old, low;
    netio_socket s, listener, client;
    char text[NETIO_ADDR_TEXT];
    int err[4], os[4];
    if (test_under("valgrind")) SKIP("valgrind accepts the client and closes it at the limit");
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
    low = old;
    low.rlim_cur = (rlim_t)client + 1; // or the lowest number that is free, if that is less
    for (int fd = client; fd >= 0; fd--)
        if (fcntl(fd, F_GETFD) == -1) low.rlim_cur = (rlim_t)fd;
    CHECK_EQ(0, setrlimit(RLIMIT_NOFILE, &low));
    set_os_error(0);
    err[0] = netio_listen(&s, "127.0.0.1:0", NULL), os[0] = netio_os_error();
    err[1] = netio_connect(&s, text, NULL, 1000), os[1] = netio_os_error();
    err[2] = netio_accept(&s, listener, NULL, 1000), os[2] = netio_os_error();
    err[3] = netio_bind(&s, "127.0.0.1:0", NULL), os[3] = netio_os_error();
    CHECK_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
    if (err[3] == 0) {
        netio_close(&s);
        netio_close(&listener);
        netio_close(&client);
        SKIP("the limit of descriptors does not bind here");
    }
    for (int i = 0; i < 4; i++) {
        CHECK_ERR(NETIO_EMFILE, err[i]);
        CHECK_EQ(EMFILE, os[i]);
    }
    CHECK_OK(netio_accept(&s, listener, NULL, 5000)); // the client still waits
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&listener));
}

// What a child of this process found.
typedef struct finding {
    ptrdiff_t err;
    int os;
} finding;

// Run `look` in a child that may give up its rights; false if it could not report.
static bool in_child(void (*look)(finding *out), finding *out, size_t count)
{
    int fds[2], status = 0;
    size_t want = count * sizeof *out, got = 0;
    pid_t pid;
    CHECK_EQ(0, pipe(fds));
    pid = fork();
    if (pid == 0) {
        finding found[8];
        memset(found, 0, sizeof found);
        close(fds[0]);
        look(found);
        status = write(fds[1], found, want) == (ssize_t)want ? 0 : 1;
        close(fds[1]);
        _exit(status);
    }
    close(fds[1]);
    while (pid > 0 && got < want) {
        ssize_t n = read(fds[0], (char *)out + got, want - got);
        if (n <= 0) break;
        got += (size_t)n;
    }
    close(fds[0]);
    if (pid > 0) waitpid(pid, &status, 0);
    return got == want && status == 0;
}

static void try_port_one(finding *out)
{
    netio_socket s;
    if (geteuid() == 0 && setuid(65534) != 0) _exit(2);
    for (int port = 1; port < 10; port++) { // one of them may be taken
        char text[32];
        snprintf(text, sizeof text, "127.0.0.1:%d", port);
        out->err = netio_listen(&s, text, NULL);
        out->os = netio_os_error();
        if (out->err != NETIO_EADDRINUSE) break;
    }
}

TEST(error, a_privileged_port_is_eacces)
{
    finding found;
    if (!in_child(try_port_one, &found, 1)) SKIP("cannot give up the rights of root");
    if (found.err == 0) SKIP("everybody may bind low ports here");
    CHECK_ERR(NETIO_EACCES, found.err);
    CHECK(found.os == EACCES || found.os == EPERM);
}
#endif

#ifdef __linux__
static void try_routes(finding *out)
{
    static const char *const targets[] = {"127.0.0.1:9", "198.51.100.1:9", "203.0.113.1:9"};
    netio_socket s;
    if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) _exit(2);
    // The loopback interface of a new network is down: nothing is reachable.
    out[0].err = netio_connect(&s, targets[0], NULL, 2000);
    out[0].os = netio_os_error();
    out[3].err = netio_connect(&s, "[::1]:9", NULL, 2000);
    if (system("ip link set lo up && ip route add unreachable 198.51.100.0/24 && "
               "ip route add prohibit 203.0.113.0/24") != 0)
        return;
    out[1].err = netio_connect(&s, targets[1], NULL, 2000);
    out[1].os = netio_os_error();
    out[2].err = netio_connect(&s, targets[2], NULL, 2000);
    out[2].os = netio_os_error();
}

TEST(error, routes_that_refuse_are_told_apart)
{
    finding found[4];
    if (test_under("qemu")) SKIP("qemu-user has no namespaces of the guest's");
    if (!in_child(try_routes, found, 4)) SKIP("no right to make a network of our own");
    CHECK_ERR(NETIO_ENETUNREACH, found[0].err);
    CHECK_EQ(ENETUNREACH, found[0].os);
    CHECK(found[3].err == NETIO_ENETUNREACH || found[3].err == NETIO_EADDRNOTAVAIL ||
          found[3].err == NETIO_EAFNOSUPPORT);
    if (found[1].err == 0) SKIP("no `ip` to add routes with (package iproute2)");
    CHECK_ERR(NETIO_EHOSTUNREACH, found[1].err);
    CHECK_EQ(EHOSTUNREACH, found[1].os);
    CHECK_ERR(NETIO_EACCES, found[2].err);
    CHECK_EQ(EACCES, found[2].os);
}
#else
TEST(error, routes_that_refuse_are_told_apart) { SKIP("needs Linux network namespaces"); }
#endif

// clang-format off
TEST_MAIN("error",
    T(error, every_error_has_a_name_of_its_own),
    T(error, every_error_has_a_text_of_its_own),
    T(error, success_has_a_name_and_a_text),
    T(error, other_numbers_are_unknown),
    T(error, os_codes_map_to_their_names),
    T(error, every_os_code_is_an_error_and_unknown_ones_are_eio),
    T(error, os_error_is_the_os_own_slot),
    T(error, texts_do_not_touch_the_os_error),
    T(error, closed_port_is_econnrefused),
    T(error, closed_port_tells_its_whole_story),
    T(error, taken_port_is_eaddrinuse),
    T(error, reset_is_econnreset),
    T(error, write_after_shutdown_is_epipe),
    T(error, end_of_stream_nothing_now_and_time_over),
    T(error, bad_arguments_are_einval),
    T(error, the_invalid_socket_is_ebadf),
    T(error, unconnected_is_enotconn),
    T(error, an_address_of_another_machine_is_eaddrnotavail),
    T(error, an_oversized_datagram_is_emsgsize),
    T(error, an_unknown_family_is_eafnosupport),
    T(error, os_error_is_per_thread),
    T(error, unix_paths_give_the_file_systems_errors),
    T(error, a_file_is_enotsock_and_a_closed_number_ebadf),
    T(error, no_descriptor_left_is_emfile),
    T(error, a_privileged_port_is_eacces),
    T(error, routes_that_refuse_are_told_apart))
// clang-format on
