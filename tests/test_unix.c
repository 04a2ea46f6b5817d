// Unix sockets by path and by abstract name, their files, and pairs of connected sockets.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifndef _WIN32
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

//================================================================================================
// The system, where the public calls have no words for it: POSIX, then Windows
//================================================================================================

enum { CANNOT = 1 }; // of as_nobody

#ifndef _WIN32
static int os_pid(void) { return (int)getpid(); }

static int os_mode(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int)(st.st_mode & 0777) : -1;
}

static void os_open_dir(const char *path) // for other users, as the test's directory is 0700
{
    char dir[300];
    snprintf(dir, sizeof dir, "%s", path);
    *strrchr(dir, '/') = 0;
    chmod(dir, 0755);
}

static int os_make_dir(const char *path, int mode) { return mkdir(path, (mode_t)mode); }
static int os_remove_dir(const char *path) { return rmdir(path); }
static int os_set_umask(int mask) { return (int)umask((mode_t)mask); }

// Run a function as the user "nobody"; returns what it returned (a netio result), or CANNOT.
static int as_nobody(int (*run)(const char *text), const char *text)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        int err = setgid(65534) == 0 && setuid(65534) == 0 ? run(text) : CANNOT;
        _exit(err == CANNOT ? 255 : -err);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return CANNOT;
    return WEXITSTATUS(status) == 255 ? CANNOT : -WEXITSTATUS(status);
}
#else
static int os_pid(void) { return 1; }
static int os_mode(const char *path)
{
    (void)path;
    return -1;
}
static void os_open_dir(const char *path) { (void)path; }
static int os_make_dir(const char *path, int mode)
{
    (void)path, (void)mode;
    return -1;
}
static int os_remove_dir(const char *path)
{
    (void)path;
    return -1;
}
static int os_set_umask(int mask) { return mask; }
static int as_nobody(int (*run)(const char *text), const char *text)
{
    (void)run, (void)text;
    return CANNOT;
}
#endif

// What is there: everything on Linux, streams alone on a newer Windows, nothing in some builds.
#if defined(_WIN32) || defined(NETIO_NO_UNIX)
static const bool may_lack = true;
#else
static const bool may_lack = false;
#endif
#if defined(__linux__) && !defined(NETIO_NO_UNIX)
static const bool on_linux = true;
#else
static const bool on_linux = false;
#endif
#ifdef NETIO_NO_UNIX
static int netio_unix_unlink(const netio_addr *a) { return a ? NETIO_ENOTSUP : NETIO_EINVAL; }
#endif

//================================================================================================
// Helpers
//================================================================================================

// "unix:" and a path in the test's own directory.
static const char *unix_text(const char *name)
{
    static char text[8][320];
    static unsigned at;
    char *out = text[at++ % 8];
    snprintf(out, sizeof text[0], "unix:%s", test_path(name));
    return out;
}

static const char *path_of(const char *text) { return text + 5; }

// Older Windows, and Wine, have no Unix sockets: then that must be said by its name.
static void need_unix(void)
{
    netio_socket s;
    const char *text = unix_text("probe");
    int err = netio_listen(&s, text, NULL);
    if (may_lack && (err == NETIO_EAFNOSUPPORT || err == NETIO_ENOTSUP))
        SKIP("no Unix sockets on this system: %s", netio_errname(err));
    CHECK_OK(err);
    CHECK_OK(netio_close(&s));
    remove(path_of(text));
}

static void parse(netio_addr *out, const char *text)
{
    CHECK_OK(netio_addr_parse(out, text, strlen(text)));
}

static bool exists(const char *path)
{
    FILE *f = fopen(path, "rb"); // a socket cannot be opened, but then says something else
    if (f) fclose(f);
    return f != NULL || os_mode(path) >= 0;
}

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

//================================================================================================
// Streams by path
//================================================================================================

TEST(unix, a_stream_by_path_echoes)
{
    netio_socket listener, client, server;
    netio_addr a, want;
    const char *text;
    char buf[16], back[NETIO_ADDR_TEXT];
    need_unix();
    text = unix_text("echo");
    CHECK_OK(netio_listen(&listener, text, NULL));
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, &a, 5000));
    CHECK_OK(netio_send_all(client, "hello", 5, NULL, 5000));
    CHECK_OK(netio_recv_exact(server, buf, 5, NULL, 5000));
    CHECK_OK(netio_send_all(server, buf, 5, NULL, 5000));
    CHECK_OK(netio_recv_exact(client, buf, 5, NULL, 5000));
    CHECK_MEM("hello", buf, 5);
    parse(&want, text);
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK(netio_addr_equal(&want, &a));
    CHECK(netio_addr_format(&a, back, sizeof back) > 0);
    CHECK_STR(text, back);
    CHECK_OK(netio_peer_addr(client, &a));
    CHECK(netio_addr_equal(&want, &a));
    CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE));
    CHECK_ERR(NETIO_EOF, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&want));
    CHECK(!exists(path_of(text)));
}

TEST(unix, a_missing_path_and_a_deserted_one_differ)
{
    netio_socket s = NETIO_INVALID_SOCKET, listener;
    netio_addr a;
    const char *text;
    int err;
    need_unix();
    CHECK_ERR(NETIO_ENOENT, netio_connect(&s, unix_text("missing"), NULL, 1000));
    text = unix_text("deserted");
    CHECK_OK(netio_listen(&listener, text, NULL));
    CHECK_OK(netio_close(&listener)); // leaves its file
    CHECK_ERR(NETIO_ECONNREFUSED, netio_connect(&s, text, NULL, 1000));
    parse(&a, text);
    err = netio_connect_start(&s, &a, NULL);
    if (err == NETIO_EINPROGRESS) err = netio_connect_finish(s, 1000);
    CHECK_ERR(NETIO_ECONNREFUSED, err);
    if (s != NETIO_INVALID_SOCKET) CHECK_OK(netio_close(&s));
    CHECK_OK(netio_unix_unlink(&a));
}

TEST(unix, by_hand_it_connects_too)
{
    netio_socket listener, client, server;
    netio_addr a;
    const char *text;
    int err;
    need_unix();
    text = unix_text("hand");
    parse(&a, text);
    CHECK_OK(netio_listen(&listener, text, NULL));
    err = netio_connect_start(&client, &a, NULL);
    if (err == NETIO_EINPROGRESS) err = netio_connect_finish(client, 5000);
    CHECK_OK(err);
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&a));
}

TEST(unix, the_longest_path_works_and_a_longer_one_is_named_so)
{
    // sun_path is 108 bytes on Linux and Windows, 104 elsewhere, with its NUL.
    size_t limit = on_linux || may_lack ? 107 : 103, len;
    netio_socket listener, client, server, s = NETIO_INVALID_SOCKET;
    netio_addr a;
    char text[200];
    long opened;
    need_unix();
    snprintf(text, sizeof text, "%s", unix_text("p"));
    len = strlen(path_of(text));
    if (len >= limit) SKIP("the directory for temporary files has a long name");
    memset(text + 5 + len, 'p', limit - len);
    text[5 + limit] = 0;
    CHECK_OK(netio_listen(&listener, text, NULL));
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&a));
    text[5 + limit] = 'p';
    text[6 + limit] = 0;
    opened = test_ops(NETIO_OP_OPEN);
    CHECK_ERR(NETIO_ENAMETOOLONG, netio_listen(&s, text, NULL));
    CHECK_ERR(NETIO_ENAMETOOLONG, netio_bind(&s, text, NULL));
    CHECK_ERR(NETIO_ENAMETOOLONG, netio_connect(&s, text, NULL, 1000));
    CHECK_ERR(NETIO_ENAMETOOLONG, netio_addr_parse(&a, text, strlen(text)));
    CHECK_EQ(opened, test_ops(NETIO_OP_OPEN)); // told before any socket was made
    CHECK(s == NETIO_INVALID_SOCKET);
}

TEST(unix, an_abstract_name_needs_no_file)
{
    netio_socket listener, client, server, s = NETIO_INVALID_SOCKET;
    netio_addr a;
    char text[64];
    if (!on_linux) SKIP("abstract names are Linux's");
    snprintf(text, sizeof text, "unix:@netio-test-%d", os_pid());
    CHECK_OK(netio_listen(&listener, text, NULL));
    CHECK_ERR(NETIO_EADDRINUSE, netio_listen(&s, text, NULL));
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK_ERR(NETIO_EINVAL, netio_unix_unlink(&a)); // there is nothing to remove
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK_ERR(NETIO_ECONNREFUSED, netio_connect(&s, text, NULL, 1000));
    CHECK_OK(netio_listen(&listener, text, NULL)); // free at once
    CHECK_OK(netio_close(&listener));
}

//================================================================================================
// The file
//================================================================================================

TEST(unix, a_stale_file_is_replaced_and_a_live_one_is_in_use)
{
    netio_socket listener, second = NETIO_INVALID_SOCKET, client, server = NETIO_INVALID_SOCKET;
    netio_addr a;
    const char *text;
    char c = 0;
    need_unix();
    text = unix_text("stale");
    parse(&a, text);
    CHECK_OK(netio_listen(&listener, text, NULL));
    CHECK_ERR(NETIO_EADDRINUSE, netio_listen(&second, text, NULL));
    CHECK(second == NETIO_INVALID_SOCKET);
    CHECK_ERR(NETIO_EADDRINUSE, netio_unix_unlink(&a)); // somebody answers: it stays
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_ERR(1, netio_send(client, "x", 1, 5000));
    // The calls above asked by connecting, so the server finds clients first that left at once.
    for (int probes = 0; probes < 3; probes++) {
        CHECK_OK(netio_accept(&server, listener, NULL, 5000));
        if (netio_recv(server, &c, 1, 5000) == 1) break;
        CHECK_OK(netio_close(&server));
    }
    CHECK_EQ('x', c);
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK(exists(path_of(text)));
    CHECK_OK(netio_listen(&listener, text, NULL)); // a crashed server starts again
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    check_linked(client, server);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&a));
    CHECK_ERR(NETIO_ENOENT, netio_unix_unlink(&a));
}

TEST(unix, a_live_server_with_a_full_backlog_is_in_use_too)
{
    netio_socket listener, fill[16], second = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    netio_addr a;
    const char *text;
    int count = 0, err = 0;
    need_unix();
    text = unix_text("busy");
    parse(&a, text);
    opts.backlog = 1;
    CHECK_OK(netio_listen(&listener, text, &opts));
    while (count < 16 && (err = netio_connect_start(&fill[count], &a, NULL)) == 0) count++;
    if (err == NETIO_EINPROGRESS) count++;
    CHECK_ERR(NETIO_EADDRINUSE, netio_listen(&second, text, NULL));
    CHECK_ERR(NETIO_EADDRINUSE, netio_unix_unlink(&a));
    CHECK(exists(path_of(text)));
    while (count > 0) CHECK_OK(netio_close(&fill[--count]));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&a));
}

TEST(unix, a_file_that_is_no_socket_stays_untouched)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_addr a;
    const char *text;
    char buf[16] = {0};
    FILE *f;
    need_unix();
    text = unix_text("letter");
    parse(&a, text);
    f = fopen(path_of(text), "wb");
    CHECK(f && fputs("dear", f) >= 0 && fclose(f) == 0);
    CHECK_ERR(NETIO_EINVAL, netio_listen(&s, text, NULL));
    CHECK_ERR(NETIO_EINVAL, netio_unix_unlink(&a));
    CHECK(s == NETIO_INVALID_SOCKET);
    f = fopen(path_of(text), "rb");
    CHECK(f && fread(buf, 1, sizeof buf, f) == 4 && fclose(f) == 0);
    CHECK_STR("dear", buf);
    CHECK_EQ(0, remove(path_of(text)));
    parse(&a, "127.0.0.1:80");
    CHECK_ERR(NETIO_EINVAL, netio_unix_unlink(&a)); // no path at all
    CHECK_ERR(NETIO_ENOENT, netio_listen(&s, unix_text("no-such-dir/x"), NULL));
}

static int listen_there(const char *text)
{
    netio_socket s;
    int err = netio_listen(&s, text, NULL);
    if (err == 0) netio_close(&s);
    return err;
}

static int unlink_there(const char *text)
{
    netio_addr a;
    int err = netio_addr_parse(&a, text, strlen(text));
    return err < 0 ? err : netio_unix_unlink(&a);
}

static int connect_there(const char *text)
{
    netio_socket s;
    int err = netio_connect(&s, text, NULL, 2000);
    if (err == 0) netio_close(&s);
    return err;
}

TEST(unix, without_the_right_to_the_directory_it_is_eacces)
{
    netio_socket listener;
    netio_addr a;
    char text[320];
    const char *dir;
    int err;
    need_unix();
    dir = test_path("theirs");
    if (os_make_dir(dir, 0755) != 0) SKIP("directories have no owner here");
    os_open_dir(dir);
    snprintf(text, sizeof text, "unix:%s/s", dir);
    parse(&a, text);
    CHECK_OK(netio_listen(&listener, text, NULL));
    CHECK_OK(netio_close(&listener));
    err = as_nobody(listen_there, text); // a stale file, but not theirs to remove
    if (err != CANNOT) {
        CHECK_ERR(NETIO_EACCES, err);
        CHECK_ERR(NETIO_EACCES, as_nobody(unlink_there, text));
    }
    CHECK_OK(netio_unix_unlink(&a));
    if (err != CANNOT) CHECK_ERR(NETIO_EACCES, as_nobody(listen_there, text));
    CHECK_EQ(0, os_remove_dir(dir));
    if (err == CANNOT) SKIP("needs root, to become somebody else");
}

TEST(unix, the_files_mode_is_the_one_asked_for)
{
    static const int modes[] = {0600, 0660, 0666, 0777, 0700};
    netio_socket listener;
    netio_socket_opts opts = {0};
    netio_addr a;
    const char *text;
    int mask;
    need_unix();
    text = unix_text("mode");
    parse(&a, text);
    opts.unix_mode = 0600;
    if (may_lack) {
        CHECK_ERR(NETIO_ENOTSUP, netio_listen(&listener, text, &opts));
        SKIP("a socket file has no mode here, and netio says so");
    }
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        opts.unix_mode = modes[i];
        CHECK_OK(netio_listen(&listener, text, &opts));
        CHECK_EQ(modes[i], os_mode(path_of(text)));
        CHECK_OK(netio_close(&listener));
        CHECK_OK(netio_unix_unlink(&a));
    }
    mask = os_set_umask(027); // 0: as the umask says
    int err = netio_listen(&listener, text, NULL);
    os_set_umask(mask);
    CHECK_OK(err);
    CHECK_EQ(0750, os_mode(path_of(text)));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&a));
}

TEST(unix, the_mode_keeps_other_users_out)
{
    netio_socket listener;
    netio_socket_opts opts = {0};
    netio_addr a;
    const char *text;
    int err;
    if (may_lack) SKIP("a socket file has no mode here");
    text = unix_text("private");
    os_open_dir(path_of(text));
    parse(&a, text);
    opts.unix_mode = 0600;
    CHECK_OK(netio_listen(&listener, text, &opts));
    err = as_nobody(connect_there, text);
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&a));
    if (err == CANNOT) SKIP("needs root, to become somebody else");
    CHECK_ERR(NETIO_EACCES, err);
    opts.unix_mode = 0666;
    CHECK_OK(netio_listen(&listener, text, &opts));
    err = as_nobody(connect_there, text);
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&a));
    CHECK_OK(err);
}

//================================================================================================
// A full backlog
//================================================================================================

typedef struct late_acceptor {
    netio_socket listener;
    int count, err;
} late_acceptor;

static void accept_late(void *arg)
{
    late_acceptor *l = (late_acceptor *)arg;
    test_sleep_ms(80);
    for (int i = 0; i < l->count; i++) {
        netio_socket s;
        l->err = netio_accept(&s, l->listener, NULL, 5000);
        if (l->err < 0) return;
        netio_close(&s);
    }
}

TEST(unix, a_full_backlog_is_waited_for_within_the_deadline)
{
    // The kernel answers EAGAIN and the socket then polls writable though it is not connected.
    netio_socket fill[16], client = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    netio_addr a;
    const char *text;
    late_acceptor late;
    test_thread thread;
    uint64_t from;
    int count = 0, err = 0;
    need_unix();
    text = unix_text("full");
    parse(&a, text);
    opts.backlog = 1;
    CHECK_OK(netio_listen(&late.listener, text, &opts));
    while (count < 16 && (err = netio_connect_start(&fill[count], &a, NULL)) == 0) count++;
    if (err != NETIO_EAGAIN) {
        while (count > 0) netio_close(&fill[--count]);
        netio_close(&late.listener);
        netio_unix_unlink(&a);
        SKIP("a full backlog shows in another way here: %s", netio_errname(err));
    }
    CHECK_ERR(NETIO_EAGAIN, netio_connect_start(&client, &a, NULL));
    CHECK_ERR(NETIO_EAGAIN, netio_connect(&client, text, NULL, 0));
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_connect(&client, text, NULL, 100));
    CHECK_BETWEEN(99, 2000, test_ms() - from);
    CHECK(client == NETIO_INVALID_SOCKET);
    late.count = count + 1;
    late.err = 0;
    test_thread_start(&thread, accept_late, &late);
    err = netio_connect(&client, text, NULL, 5000);
    test_thread_join(&thread);
    CHECK_OK(err);
    CHECK_OK(late.err);
    CHECK_OK(netio_close(&client));
    while (count > 0) CHECK_OK(netio_close(&fill[--count]));
    CHECK_OK(netio_close(&late.listener));
    CHECK_OK(netio_unix_unlink(&a));
}

//================================================================================================
// Datagrams and records by path
//================================================================================================

TEST(unix, datagrams_by_path_tell_their_sender)
{
    netio_socket a, b, nameless;
    netio_addr at_a, at_b, from;
    char buf[16];
    const char *text_a, *text_b;
    if (may_lack) {
        int err = netio_bind(&a, unix_text("dgram"), NULL);
        CHECK(err == NETIO_ENOTSUP || err == NETIO_EAFNOSUPPORT);
        SKIP("no Unix datagrams here, and netio says so");
    }
    text_a = unix_text("dgram-a");
    text_b = unix_text("dgram-b");
    parse(&at_a, text_a);
    parse(&at_b, text_b);
    CHECK_OK(netio_bind(&a, text_a, NULL));
    CHECK_OK(netio_bind(&b, text_b, NULL));
    CHECK_ERR(NETIO_EADDRINUSE, netio_bind(&nameless, text_a, NULL));
    CHECK_ERR(3, netio_sendto(a, "one", 3, &at_b, 1000));
    CHECK_ERR(0, netio_sendto(a, "", 0, &at_b, 1000));
    CHECK_ERR(3, netio_recvfrom(b, buf, sizeof buf, &from, 5000));
    CHECK(netio_addr_equal(&at_a, &from));
    CHECK_ERR(0, netio_recvfrom(b, buf, sizeof buf, &from, 5000));
    CHECK_ERR(5, netio_sendto(b, "reply", 5, &from, 1000));
    CHECK_ERR(5, netio_recvfrom(a, buf, sizeof buf, &from, 5000));
    CHECK(netio_addr_equal(&at_b, &from));
    CHECK_OK(netio_close(&b));
    CHECK_ERR(NETIO_ECONNREFUSED, netio_sendto(a, "x", 1, &at_b, 1000)); // the peer is gone
    CHECK_OK(netio_unix_unlink(&at_b));
    CHECK_ERR(NETIO_ENOENT, netio_sendto(a, "x", 1, &at_b, 1000));
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_bind(&a, text_a, NULL)); // its stale file is replaced
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_unix_unlink(&at_a));
}

TEST(unix, records_keep_their_boundaries)
{
    static const size_t sizes[] = {1, 4096, 65536};
    static unsigned char out[65536], in[65536];
    netio_socket s[2];
    int err = netio_pair(s, NETIO_SEQPACKET);
    if (err == NETIO_ENOTSUP && !on_linux) SKIP("no records here, and netio says so");
    CHECK_OK(err);
    for (size_t i = 0; i < 3; i++) {
        test_fill(out, sizes[i], (uint32_t)i);
        CHECK_ERR(sizes[i], netio_send(s[0], out, sizes[i], 5000));
    }
    for (size_t i = 0; i < 3; i++) {
        test_fill(out, sizes[i], (uint32_t)i);
        CHECK_ERR(sizes[i], netio_recv(s[1], in, sizeof in, 5000));
        CHECK_MEM(out, in, sizes[i]);
    }
    // An empty record could not be told from the end.
    CHECK_ERR(NETIO_EINVAL, netio_send(s[0], "", 0, 1000));
    CHECK_OK(netio_close(&s[0]));
    CHECK_ERR(NETIO_EOF, netio_recv(s[1], in, sizeof in, 5000));
    CHECK_OK(netio_close(&s[1]));
}

//================================================================================================
// Pairs
//================================================================================================

TEST(unix, a_stream_pair_is_connected_both_ways)
{
    netio_socket s[2];
    char c;
    int type;
    for (int i = 0; i < 3; i++) {
        CHECK_OK(netio_pair(s, NETIO_STREAM));
        CHECK(s[0] != s[1]);
        CHECK_OK(netio_get_option(s[0], NETIO_OPT_TYPE, &type));
        CHECK_EQ(NETIO_STREAM, type);
        CHECK_ERR(NETIO_EAGAIN, netio_recv(s[0], &c, 1, 0));
        check_linked(s[0], s[1]);
        CHECK_OK(netio_close(&s[i % 2]));
        CHECK_ERR(NETIO_EOF, netio_recv(s[1 - i % 2], &c, 1, 5000));
        CHECK_OK(netio_close(&s[1 - i % 2]));
    }
}

TEST(unix, a_datagram_pair_keeps_boundaries_and_hears_nobody_else)
{
    netio_socket s[2], stranger;
    netio_addr a;
    char buf[16];
    ptrdiff_t n;
    CHECK_OK(netio_pair(s, NETIO_DGRAM));
    check_linked(s[0], s[1]);
    CHECK_ERR(3, netio_send(s[0], "one", 3, 1000));
    CHECK_ERR(5, netio_send(s[0], "three", 5, 1000));
    CHECK_ERR(3, netio_recv(s[1], buf, sizeof buf, 5000));
    CHECK_ERR(5, netio_recv(s[1], buf, sizeof buf, 5000));
    // Where it is made of loopback UDP, a stranger may know its port and still not slip in.
    CHECK_OK(netio_local_addr(s[1], &a));
    if (netio_addr_family(&a) == NETIO_IPV4) {
        CHECK_OK(netio_bind(&stranger, "127.0.0.1:0", NULL));
        CHECK_ERR(5, netio_sendto(stranger, "false", 5, &a, 1000));
        CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(s[1], buf, sizeof buf, 50));
        CHECK_OK(netio_close(&stranger));
    }
    CHECK_OK(netio_close(&s[0]));
    n = netio_recv(s[1], buf, sizeof buf, 50); // not signalled: nothing comes, or refused at most
    CHECK(n == NETIO_ETIMEDOUT || n == NETIO_ECONNREFUSED || n == NETIO_ECONNRESET);
    CHECK_OK(netio_close(&s[1]));
}

TEST(unix, a_full_datagram_pair_is_eagain)
{
    static char data[1024];
    netio_socket s[2];
    uint64_t from;
    long sent = 0, got = 0;
    ptrdiff_t n = 0;
    CHECK_OK(netio_pair(s, NETIO_DGRAM));
    while (sent < 20000 && (n = netio_send(s[0], data, sizeof data, 0)) > 0) {
        CHECK_ERR(sizeof data, n); // whole, or not at all
        sent++;
    }
    if (sent == 20000) { // loopback UDP drops what does not fit instead
        CHECK_OK(netio_close(&s[0]));
        CHECK_OK(netio_close(&s[1]));
        SKIP("a datagram pair here never says that it is full");
    }
    CHECK_ERR(NETIO_EAGAIN, n);
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_send(s[0], data, sizeof data, 50));
    CHECK_BETWEEN(49, 2000, test_ms() - from);
    while (netio_recv(s[1], data, sizeof data, 0) == (ptrdiff_t)sizeof data) got++;
    CHECK_EQ(sent, got);
    CHECK_ERR(sizeof data, netio_send(s[0], data, sizeof data, 0)); // there is room again
    CHECK_OK(netio_close(&s[0]));
    CHECK_OK(netio_close(&s[1]));
}

TEST(unix, a_pair_of_nonsense_is_einval)
{
    netio_socket s[2] = {NETIO_INVALID_SOCKET, NETIO_INVALID_SOCKET};
    static const int types[] = {0, -1, 4, 99};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        CHECK_ERR(NETIO_EINVAL, netio_pair(s, types[i]));
    CHECK(s[0] == NETIO_INVALID_SOCKET && s[1] == NETIO_INVALID_SOCKET);
}

TEST(unix, a_record_listener_serves_records)
{
    netio_socket listener, client, server;
    netio_socket_opts opts = {0};
    netio_addr a;
    char buf[16];
    const char *text = unix_text("records");
    int err;
    opts.type = NETIO_SEQPACKET;
    err = netio_listen(&listener, text, &opts);
    if (!on_linux && (err == NETIO_ENOTSUP || err == NETIO_EAFNOSUPPORT))
        SKIP("no records here, and netio says so");
    CHECK_OK(err);
    CHECK_OK(netio_connect(&client, text, &opts, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    CHECK_ERR(3, netio_send(client, "one", 3, 1000));
    CHECK_ERR(5, netio_send(client, "three", 5, 1000));
    CHECK_ERR(3, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_ERR(5, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_unix_unlink(&a));
}

//================================================================================================

// clang-format off
TEST_MAIN("unix",
    T(unix, a_stream_by_path_echoes),
    T(unix, a_missing_path_and_a_deserted_one_differ),
    T(unix, by_hand_it_connects_too),
    T(unix, the_longest_path_works_and_a_longer_one_is_named_so),
    T(unix, an_abstract_name_needs_no_file),
    T(unix, a_stale_file_is_replaced_and_a_live_one_is_in_use),
    T(unix, a_live_server_with_a_full_backlog_is_in_use_too),
    T(unix, a_file_that_is_no_socket_stays_untouched),
    T(unix, without_the_right_to_the_directory_it_is_eacces),
    T(unix, the_files_mode_is_the_one_asked_for),
    T(unix, the_mode_keeps_other_users_out),
    T(unix, a_full_backlog_is_waited_for_within_the_deadline),
    T(unix, datagrams_by_path_tell_their_sender),
    T(unix, records_keep_their_boundaries),
    T(unix, a_record_listener_serves_records),
    T(unix, a_stream_pair_is_connected_both_ways),
    T(unix, a_datagram_pair_keeps_boundaries_and_hears_nobody_else),
    T(unix, a_full_datagram_pair_is_eagain),
    T(unix, a_pair_of_nonsense_is_einval))
