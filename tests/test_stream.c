// Streams: what sends and receives return, whole and partial transfers, pieces, files, ends, time.
#ifndef _WIN32
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#endif
#include "test.h"

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <io.h>
#else
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#endif

//================================================================================================
// The system, where the public calls have no words for it: POSIX, then Windows
//================================================================================================

#ifndef _WIN32
static volatile sig_atomic_t storm_hits; // on the thread that runs the test
static pthread_t storm_main;

static void storm_hit(int number)
{
    (void)number; // the other threads are hit as well; their calls end with EINTR, which is all
    if (pthread_equal(pthread_self(), storm_main)) storm_hits++;
}

static bool storm_timer(int us)
{
    struct itimerval every;
    memset(&every, 0, sizeof every);
    every.it_interval.tv_usec = every.it_value.tv_usec = us;
    return setitimer(ITIMER_REAL, &every, NULL) == 0;
}

// A signal each millisecond, and no SA_RESTART: every waiting system call ends with EINTR.
static bool storm_begin(void)
{
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_handler = storm_hit;
    storm_hits = 0;
    storm_main = pthread_self();
    return sigaction(SIGALRM, &act, NULL) == 0 && storm_timer(1000);
}

// Returns how many signals came.
static int storm_end(void)
{
    storm_timer(0);
    return (int)storm_hits;
}

static netio_file os_file(FILE *f) { return fileno(f); }
static int64_t os_position(FILE *f) { return (int64_t)lseek(fileno(f), 0, SEEK_CUR); }
static int os_seek(FILE *f, uint64_t off) { return fseeko(f, (off_t)off, SEEK_SET); }
static bool os_pipe(netio_file out[2]) { return pipe(out) == 0; }
static void os_pipe_write(netio_file end, const void *data, size_t len)
{
    CHECK_EQ(len, write(end, data, len));
}
static void os_file_close(netio_file f) { close(f); }

// A blocking pair that netio did not make.
static void raw_pair(netio_socket out[2])
{
    int ends[2];
    CHECK_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    out[0] = ends[0];
    out[1] = ends[1];
}

static bool os_nonblocking(netio_socket s) { return (fcntl(s, F_GETFL) & O_NONBLOCK) != 0; }
static const bool os_mode_can_be_asked = true;
#else
static bool storm_begin(void) { return false; }
static int storm_end(void) { return 0; }
static netio_file os_file(FILE *f) { return (netio_file)_get_osfhandle(_fileno(f)); }
static int64_t os_position(FILE *f) { return _telli64(_fileno(f)); }
static int os_seek(FILE *f, uint64_t off) { return _fseeki64(f, (int64_t)off, SEEK_SET); }
static bool os_pipe(netio_file out[2])
{
    HANDLE r, w;
    if (!CreatePipe(&r, &w, NULL, 65536)) return false;
    out[0] = (netio_file)r;
    out[1] = (netio_file)w;
    return true;
}
static void os_pipe_write(netio_file end, const void *data, size_t len)
{
    DWORD n = 0;
    CHECK(WriteFile((HANDLE)end, data, (DWORD)len, &n, NULL) && n == len);
}
static void os_file_close(netio_file f) { CloseHandle((HANDLE)f); }

static void raw_pair(netio_socket out[2])
{
    netio_socket listener;
    netio_addr a;
    size_t len;
    const void *raw;
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(listener, &a));
    raw = netio_addr_sockaddr(&a, &len);
    out[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(0, connect(out[0], (const struct sockaddr *)raw, (int)len));
    CHECK_OK(netio_accept(&out[1], listener, NULL, 5000));
    CHECK_OK(netio_close(&listener));
    u_long off = 0;
    CHECK_EQ(0, ioctlsocket(out[1], (long)FIONBIO, &off));
}

static bool os_nonblocking(netio_socket s)
{
    (void)s;
    return true;
}
static const bool os_mode_can_be_asked = false;
#endif

//================================================================================================
// Helpers
//================================================================================================

static bool slow_machine(void)
{
    return test_under("wine") || test_under("qemu") || test_under("valgrind") ||
           test_under("sanitizer");
}

// The byte at a position of every stream here, so that each piece can be checked where it lands.
static unsigned char byte_at(uint64_t pos)
{
    uint32_t x = (uint32_t)pos * 2654435761u + (uint32_t)(pos >> 32);
    return (unsigned char)((x >> 24) ^ (x >> 11));
}

static void bytes_at(void *buf, size_t len, uint64_t pos)
{
    unsigned char *p = (unsigned char *)buf;
    for (size_t i = 0; i < len; i++) p[i] = byte_at(pos + i);
}

static bool bytes_are(const void *buf, size_t len, uint64_t pos)
{
    const unsigned char *p = (const unsigned char *)buf;
    for (size_t i = 0; i < len; i++)
        if (p[i] != byte_at(pos + i)) return false;
    return true;
}

// Connected TCP sockets with little room in the kernel, so that transfers come short. 0: as it is.
static void small_pair(netio_socket *client, netio_socket *server, int bytes)
{
    netio_setting settings[2];
    netio_socket_opts opts = {0};
    netio_socket listener;
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    memset(settings, 0, sizeof settings);
    settings[0].option = NETIO_OPT_SNDBUF;
    settings[0].value = bytes;
    settings[1].option = NETIO_OPT_RCVBUF;
    settings[1].value = bytes;
    opts.settings = settings;
    opts.setting_count = bytes ? 2 : 0;
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", &opts));
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK(netio_addr_format(&a, text, sizeof text) > 0);
    CHECK_OK(netio_connect(client, text, &opts, 5000));
    CHECK_OK(netio_accept(server, listener, NULL, 5000));
    CHECK_OK(netio_close(&listener));
    // Wine and Windows do not hand the listener's buffers on.
    if (bytes) {
        CHECK_OK(netio_set_option(*server, NETIO_OPT_SNDBUF, bytes));
        CHECK_OK(netio_set_option(*server, NETIO_OPT_RCVBUF, bytes));
    }
}

// One direction of a transfer, for a thread.
typedef struct pump {
    netio_socket s;
    uint64_t total; // bytes to move
    uint64_t moved;
    uint32_t seed; // of the sizes of its calls
    int late_ms;   // pause before it starts
    int err;       // 0, or what stopped it; receiving: NETIO_EOF if the end came at `total`
    bool wrong;    // received bytes were not those of their place
} pump;

enum { PUMP_CHUNK = 65536 };

static void pump_send(void *arg)
{
    pump *p = (pump *)arg;
    unsigned char *buf = (unsigned char *)malloc(PUMP_CHUNK);
    if (p->late_ms) test_sleep_ms(p->late_ms);
    while (buf && p->moved < p->total) {
        size_t len = test_random(&p->seed) % PUMP_CHUNK + 1, done = 0;
        if (len > p->total - p->moved) len = (size_t)(p->total - p->moved);
        bytes_at(buf, len, p->moved);
        p->err = netio_send_all(p->s, buf, len, &done, 20000);
        p->moved += done;
        if (p->err < 0) break;
    }
    free(buf);
}

// Receives until `total` bytes are there or the stream ends.
static void pump_recv(void *arg)
{
    pump *p = (pump *)arg;
    unsigned char *buf = (unsigned char *)malloc(PUMP_CHUNK);
    if (p->late_ms) test_sleep_ms(p->late_ms);
    while (buf && p->moved < p->total) {
        size_t len = test_random(&p->seed) % PUMP_CHUNK + 1;
        ptrdiff_t n = netio_recv(p->s, buf, len, 20000);
        if (n <= 0) {
            p->err = (int)n;
            break;
        }
        if (!bytes_are(buf, (size_t)n, p->moved)) p->wrong = true;
        p->moved += (uint64_t)n;
    }
    free(buf);
}

static void pump_check(const pump *p)
{
    CHECK_OK(p->err);
    CHECK(!p->wrong);
    CHECK_EQ(p->total, p->moved);
}

// Send until nothing more fits; returns how much that was.
static uint64_t fill_up(netio_socket s)
{
    unsigned char buf[4096];
    uint64_t total = 0;
    for (;;) {
        ptrdiff_t n;
        bytes_at(buf, sizeof buf, total);
        n = netio_send(s, buf, sizeof buf, 0);
        if (n == NETIO_EAGAIN) {
            // TCP moves what it holds to the peer a moment later, and has room again. Not writable
            // may mean "little room", so the last bytes go one by one.
            if (netio_wait(s, NETIO_EV_WRITE, 100) > 0) continue;
            n = netio_send(s, buf, 1, 0);
            if (n == NETIO_EAGAIN) return total;
        }
        CHECK(n > 0);
        total += (uint64_t)n;
        CHECK(total < (1u << 28));
    }
}

static bool reset_or_wine(ptrdiff_t n)
{
    return n == NETIO_ECONNRESET || (n == NETIO_EOF && test_under("wine"));
}

static bool dead(ptrdiff_t n)
{
    return n == NETIO_EPIPE || n == NETIO_ECONNRESET || n == NETIO_ECONNABORTED;
}

//================================================================================================
// What a call returns
//================================================================================================

TEST(stream, recv_tells_nothing_data_end_and_reset_apart)
{
    netio_socket client, server;
    char buf[8];
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EAGAIN, netio_recv(client, buf, sizeof buf, 0));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(client, buf, sizeof buf, 30));
    CHECK_ERR(3, netio_send(server, "abc", 3, 5000));
    CHECK_ERR(2, netio_recv(client, buf, 2, 5000)); // the rest stays
    CHECK_ERR(1, netio_recv(client, buf, sizeof buf, 5000));
    CHECK_EQ('c', buf[0]);
    CHECK_OK(netio_close(&server));
    CHECK_ERR(NETIO_EOF, netio_recv(client, buf, sizeof buf, 5000));
    CHECK_ERR(NETIO_EOF, netio_recv(client, buf, sizeof buf, 0)); // and again
    CHECK_OK(netio_close(&client));
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_abort(&server));
    CHECK(server == NETIO_INVALID_SOCKET);
    CHECK(reset_or_wine(netio_recv(client, buf, sizeof buf, 5000)));
    CHECK_OK(netio_close(&client));
}

TEST(stream, empty_and_null_buffers)
{
    netio_socket client, server;
    netio_room room = {NULL, 4};
    netio_buf piece = {NULL, 4};
    char c;
    size_t done = 9;
    long ops;
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EINVAL, netio_recv(client, NULL, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_peek(client, NULL, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_send(client, NULL, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_recvv(client, &room, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_sendv(client, &piece, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_recvv(client, NULL, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_sendv(client, NULL, 1, 0));
    CHECK_ERR(NETIO_EINVAL, netio_recv_exact(client, NULL, 1, &done, 0));
    CHECK_EQ(0, done);
    done = 9;
    CHECK_ERR(NETIO_EINVAL, netio_send_all(client, NULL, 1, &done, 0));
    CHECK_EQ(0, done);
    done = 9;
    CHECK_ERR(NETIO_EINVAL, netio_sendv_all(client, NULL, 1, &done, 0));
    CHECK_EQ(0, done);
    // Length 0 is 0 at once: it waits for nothing and is no end of the stream.
    CHECK_ERR(0, netio_recv(client, &c, 0, 1000));
    CHECK_ERR(0, netio_recv(client, NULL, 0, 1000));
    CHECK_ERR(0, netio_peek(client, NULL, 0, 1000));
    CHECK_ERR(0, netio_send(client, &c, 0, 1000));
    CHECK_ERR(0, netio_send(client, NULL, 0, 1000));
    CHECK_ERR(0, netio_recvv(client, NULL, 0, 1000));
    CHECK_ERR(0, netio_sendv(client, NULL, 0, 1000));
    CHECK_OK(netio_recv_exact(client, NULL, 0, &done, 1000));
    CHECK_EQ(0, done);
    CHECK_OK(netio_send_all(client, NULL, 0, &done, 1000));
    CHECK_OK(netio_sendv_all(client, NULL, 0, &done, 1000));
    CHECK_EQ(0, done);
    CHECK_OK(netio_close(&server));
    ops = test_ops(NETIO_OP_RECV);
    CHECK_ERR(NETIO_EOF, netio_recv(client, &c, 1, 5000));
    CHECK(test_ops(NETIO_OP_RECV) > ops);          // the hook sees what the calls do
    CHECK_ERR(0, netio_recv(client, &c, 0, 1000)); // even at the end
    CHECK_OK(netio_close(&client));
}

TEST(stream, a_full_buffer_is_eagain_and_nothing_is_lost)
{
    netio_socket client, server;
    unsigned char *buf = (unsigned char *)malloc(1 << 20);
    uint64_t sent, got = 0;
    small_pair(&client, &server, 16384);
    sent = fill_up(client);
    CHECK(sent > 0);
    CHECK_ERR(NETIO_EAGAIN, netio_send(client, "x", 1, 0));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_send(client, "x", 1, 50));
    while (got < sent) {
        ptrdiff_t n = netio_recv(server, buf, 1 << 20, 5000);
        CHECK(n > 0);
        CHECK(bytes_are(buf, (size_t)n, got));
        got += (uint64_t)n;
    }
    CHECK_EQ(sent, got);
    CHECK_ERR(NETIO_EAGAIN, netio_recv(server, buf, 1, 0));
    // A large send takes what fits and says how much.
    bytes_at(buf, 1 << 20, 0);
    {
        ptrdiff_t n = netio_send(client, buf, 1 << 20, 5000);
        CHECK(n > 0);
        CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE));
        sent = (uint64_t)n;
    }
    for (got = 0;;) {
        ptrdiff_t n = netio_recv(server, buf, 1 << 20, 5000);
        if (n == NETIO_EOF) break;
        CHECK(n > 0);
        CHECK(bytes_are(buf, (size_t)n, got));
        got += (uint64_t)n;
    }
    CHECK_EQ(sent, got);
    free(buf);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, peek_takes_nothing)
{
    netio_socket client, server;
    char a[8], b[8];
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EAGAIN, netio_peek(client, a, 4, 0));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_peek(client, a, 4, 30));
    CHECK_OK(netio_send_all(server, "12345678", 8, NULL, 5000));
    CHECK_ERR(4, netio_peek(client, a, 4, 5000));
    CHECK_ERR(4, netio_peek(client, a, 4, 0));
    CHECK_OK(netio_recv_exact(client, b, 8, NULL, 5000));
    CHECK_MEM("12345678", b, 8);
    CHECK_MEM(a, b, 4);
    CHECK_ERR(NETIO_EAGAIN, netio_peek(client, a, 4, 0));
    CHECK_OK(netio_close(&server));
    CHECK_ERR(NETIO_EOF, netio_peek(client, a, 4, 5000));
    CHECK_ERR(NETIO_EOF, netio_recv(client, a, 4, 0));
    CHECK_OK(netio_close(&client));
}

TEST(stream, timeout_is_exact_and_the_socket_stays_usable)
{
    static const int times[] = {1, 20, 100};
    netio_socket client, server;
    char c;
    test_tcp_pair(&client, &server);
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        uint64_t from = netio_now_us();
        CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(client, &c, 1, times[i]));
        CHECK_BETWEEN(times[i] * 1000, times[i] * 1000 + 2000000, netio_now_us() - from);
    }
    CHECK_ERR(1, netio_send(server, "q", 1, 5000));
    CHECK_ERR(1, netio_recv(client, &c, 1, 5000));
    CHECK_EQ('q', c);
    CHECK_ERR(1, netio_send(server, "r", 1, -1));
    CHECK_ERR(1, netio_recv(client, &c, 1, -1)); // every negative number: no limit
    CHECK_ERR(1, netio_send(server, "s", 1, -5));
    CHECK_ERR(1, netio_recv(client, &c, 1, -5));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

//================================================================================================
// All of it or an error
//================================================================================================

TEST(stream, megabytes_each_way_through_small_buffers_arrive_whole)
{
    netio_socket client, server;
    test_thread thread[4];
    pump p[4];
    small_pair(&client, &server, slow_machine() ? 32768 : 8192);
    memset(p, 0, sizeof p);
    for (int i = 0; i < 4; i++) {
        p[i].s = i < 2 ? client : server;
        p[i].total = slow_machine() ? 1 << 20 : 8 << 20;
        p[i].seed = (uint32_t)i + 1;
        test_thread_start(&thread[i], i % 2 ? pump_recv : pump_send, &p[i]);
    }
    for (int i = 0; i < 4; i++) test_thread_join(&thread[i]);
    for (int i = 0; i < 4; i++) pump_check(&p[i]);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, one_call_sends_and_one_receives_eight_megabytes)
{
    size_t len = slow_machine() ? 1 << 20 : 8 << 20, done = 0;
    unsigned char *buf = (unsigned char *)malloc(len);
    netio_socket client, server;
    test_thread thread;
    pump p;
    int err;
    small_pair(&client, &server, 16384);
    memset(&p, 0, sizeof p);
    p.s = server;
    p.total = len;
    bytes_at(buf, len, 0);
    test_thread_start(&thread, pump_recv, &p);
    err = netio_send_all(client, buf, len, &done, 20000);
    test_thread_join(&thread);
    CHECK_OK(err);
    CHECK_EQ(len, done);
    pump_check(&p);
    memset(&p, 0, sizeof p);
    memset(buf, 0, len);
    p.s = server;
    p.total = len;
    test_thread_start(&thread, pump_send, &p);
    err = netio_recv_exact(client, buf, len, &done, 20000);
    test_thread_join(&thread);
    CHECK_OK(err);
    CHECK_EQ(len, done);
    CHECK(bytes_are(buf, len, 0));
    pump_check(&p);
    free(buf);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, recv_exact_says_how_far_it_got)
{
    netio_socket client, server;
    char buf[16];
    size_t done = 99;
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EAGAIN, netio_recv_exact(client, buf, 8, &done, 0));
    CHECK_EQ(0, done);
    CHECK_OK(netio_send_all(server, "12345", 5, NULL, 5000));
    CHECK_EQ(NETIO_EV_READ, netio_wait(client, NETIO_EV_READ, 5000) & NETIO_EV_READ);
    CHECK_ERR(NETIO_EAGAIN, netio_recv_exact(client, buf, 8, &done, 0));
    CHECK_EQ(5, done);
    CHECK_MEM("12345", buf, 5);
    CHECK_OK(netio_send_all(server, "123", 3, NULL, 5000));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv_exact(client, buf, 8, &done, 60));
    CHECK_EQ(3, done);
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv_exact(client, buf, 8, NULL, 10)); // `done` may be NULL
    CHECK_OK(netio_send_all(server, "1234567", 7, NULL, 5000));
    CHECK_OK(netio_close(&server));
    CHECK_ERR(NETIO_ETRUNCATED, netio_recv_exact(client, buf, 8, &done, 5000));
    CHECK_EQ(7, done);
    CHECK_MEM("1234567", buf, 7);
    CHECK_ERR(NETIO_EOF, netio_recv_exact(client, buf, 8, &done, 5000));
    CHECK_EQ(0, done);
    CHECK_OK(netio_close(&client));
}

TEST(stream, send_all_says_how_far_it_got)
{
    enum { LEN = 4 << 20 };
    netio_socket client, server;
    unsigned char *buf = (unsigned char *)malloc(LEN);
    size_t done = 0;
    uint64_t from, got;
    for (int timeout_ms = 0; timeout_ms <= 150; timeout_ms += 150) {
        small_pair(&client, &server, 16384);
        bytes_at(buf, LEN, 0);
        from = test_ms();
        CHECK_ERR(timeout_ms ? NETIO_ETIMEDOUT : NETIO_EAGAIN,
                  netio_send_all(client, buf, LEN, &done, timeout_ms));
        CHECK_BETWEEN(timeout_ms ? timeout_ms - 1 : 0, timeout_ms + 2000, test_ms() - from);
        CHECK(done > 0 && done < LEN);
        CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE));
        for (got = 0;;) {
            ptrdiff_t n = netio_recv(server, buf, LEN, 5000);
            if (n == NETIO_EOF) break;
            CHECK(n > 0);
            CHECK(bytes_are(buf, (size_t)n, got));
            got += (uint64_t)n;
        }
        CHECK_EQ(done, got);
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
    }
    free(buf);
}

TEST(stream, send_all_to_a_peer_that_leaves_says_how_far_it_got)
{
    enum { LEN = 1 << 20 };
    netio_socket client, server;
    unsigned char *buf = (unsigned char *)malloc(LEN);
    size_t done = LEN + 1;
    int err;
    small_pair(&client, &server, 16384);
    memset(buf, 'a', LEN);
    CHECK_OK(netio_abort(&server));
    err = netio_send_all(client, buf, LEN, &done, 5000);
    CHECK(dead(err));
    CHECK(done < LEN);
    free(buf);
    CHECK_OK(netio_close(&client));
}

typedef struct dripper {
    netio_socket s;
    int every_ms, count;
} dripper;

static void drip(void *arg)
{
    dripper *d = (dripper *)arg;
    for (int i = 0; i < d->count; i++) {
        test_sleep_ms(d->every_ms);
        if (netio_send(d->s, "d", 1, 1000) < 0) return;
    }
}

TEST(stream, partial_progress_does_not_extend_a_deadline)
{
    netio_socket client, server;
    test_thread thread;
    dripper d;
    char buf[100];
    size_t done = 0;
    uint64_t from;
    int err;
    test_tcp_pair(&client, &server);
    d.s = server;
    d.every_ms = 50;
    d.count = 9;
    from = test_ms();
    test_thread_start(&thread, drip, &d);
    err = netio_recv_exact(client, buf, sizeof buf, &done, 300);
    from = test_ms() - from;
    test_thread_join(&thread);
    CHECK_ERR(NETIO_ETIMEDOUT, err);
    CHECK_BETWEEN(299, 2300, from);
    CHECK_BETWEEN(slow_machine() ? 0 : 1, 9, done); // about 6
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, one_deadline_serves_several_calls)
{
    netio_socket client, server;
    char buf[16];
    int64_t by = netio_deadline(200);
    uint64_t from = test_ms();
    int left;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_send_all(client, "ask", 3, NULL, netio_deadline_left(by)));
    CHECK_OK(netio_recv_exact(server, buf, 3, NULL, netio_deadline_left(by)));
    CHECK_OK(netio_send_all(server, "a", 1, NULL, netio_deadline_left(by)));
    CHECK_OK(netio_recv_exact(client, buf, 1, NULL, netio_deadline_left(by)));
    left = netio_deadline_left(by);
    CHECK_BETWEEN(0, 200, left);
    {
        ptrdiff_t n = netio_recv(client, buf, 1, left);
        CHECK(n == NETIO_ETIMEDOUT || (left == 0 && n == NETIO_EAGAIN));
    }
    CHECK_BETWEEN(199, 3000, test_ms() - from);
    // Past the deadline each call still has one try.
    CHECK_EQ(0, netio_deadline_left(by));
    CHECK_ERR(NETIO_EAGAIN, netio_recv(client, buf, 1, netio_deadline_left(by)));
    CHECK_OK(netio_send_all(server, "b", 1, NULL, netio_deadline_left(by)));
    CHECK_EQ(NETIO_EV_READ, netio_wait(client, NETIO_EV_READ, 5000) & NETIO_EV_READ);
    CHECK_ERR(1, netio_recv(client, buf, 1, netio_deadline_left(by)));
    CHECK_EQ('b', buf[0]);
    CHECK_EQ(-1, netio_deadline_left(netio_deadline(-1)));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

//================================================================================================
// Pieces
//================================================================================================

TEST(stream, pieces_travel_in_order_with_empty_ones_between)
{
    netio_socket client, server;
    char a[4], b[1], c[8];
    netio_buf bufs[6] = {{"He", 2}, {NULL, 0}, {"llo", 3}, {"", 0}, {", wor", 5}, {"ld", 2}};
    netio_room rooms[5] = {{NULL, 0}, {NULL, 4}, {NULL, 1}, {NULL, 0}, {NULL, 8}};
    size_t done = 0;
    test_tcp_pair(&client, &server);
    rooms[1].data = a;
    rooms[2].data = b;
    rooms[4].data = c;
    CHECK_ERR(12, netio_sendv(client, bufs, 6, 5000));
    // One system call took them all, so one receive finds them all.
    CHECK_EQ(NETIO_EV_READ, netio_wait(server, NETIO_EV_READ, 5000) & NETIO_EV_READ);
    CHECK_ERR(12, netio_recvv(server, rooms, 5, 5000));
    CHECK_MEM("Hell", a, 4);
    CHECK_MEM("o", b, 1);
    CHECK_MEM(", world", c, 7);
    CHECK_ERR(NETIO_EAGAIN, netio_recvv(server, rooms, 5, 0));
    CHECK_OK(netio_sendv_all(client, bufs, 6, &done, 5000));
    CHECK_EQ(12, done);
    CHECK_OK(netio_close(&client));
    CHECK_ERR(12, netio_recvv(server, rooms, 5, 5000));
    CHECK_ERR(NETIO_EOF, netio_recvv(server, rooms, 5, 5000));
    CHECK_OK(netio_close(&server));
}

TEST(stream, only_empty_pieces_are_nothing)
{
    netio_socket client, server;
    netio_buf bufs[3] = {{NULL, 0}, {"", 0}, {NULL, 0}};
    netio_room rooms[2] = {{NULL, 0}, {NULL, 0}};
    size_t done = 7;
    test_tcp_pair(&client, &server);
    CHECK_ERR(0, netio_sendv(client, bufs, 3, 1000));
    CHECK_OK(netio_sendv_all(client, bufs, 3, &done, 1000));
    CHECK_EQ(0, done);
    CHECK_ERR(0, netio_recvv(server, rooms, 2, 1000)); // no wait, no end
    CHECK_ERR(NETIO_EAGAIN, netio_recv(server, &done, 1, 0));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, more_pieces_than_the_os_takes_at_once)
{
    enum { PIECES = 3000, EACH = 7 };
    netio_socket client, server;
    static unsigned char data[PIECES * EACH], got[PIECES * EACH];
    static netio_buf bufs[PIECES];
    static netio_room rooms[PIECES];
    size_t done = 0, total = 0;
    test_tcp_pair(&client, &server);
    bytes_at(data, sizeof data, 0);
    for (size_t i = 0; i < PIECES; i++) {
        bufs[i].data = data + i * EACH;
        rooms[i].data = got + i * EACH;
        bufs[i].len = rooms[i].cap = EACH;
    }
    CHECK_OK(netio_sendv_all(client, bufs, PIECES, &done, 5000));
    CHECK_EQ(sizeof data, done);
    // Receiving may stop after any number of bytes: go on at the room where it stopped.
    while (total < sizeof got) {
        size_t first = total / EACH;
        ptrdiff_t n;
        rooms[first].data = got + total;
        rooms[first].cap = EACH - total % EACH;
        n = netio_recvv(server, rooms + first, PIECES - first, 5000);
        CHECK(n > 0);
        total += (size_t)n;
    }
    CHECK(bytes_are(got, sizeof got, 0));
    {
        ptrdiff_t n = netio_sendv(client, bufs, PIECES, 5000); // a count, all or less
        CHECK(n >= 64 * EACH && n <= (ptrdiff_t)sizeof data);
        CHECK_OK(netio_recv_exact(server, got, (size_t)n, NULL, 5000));
        CHECK(bytes_are(got, (size_t)n, 0));
        CHECK_ERR(NETIO_EAGAIN, netio_recv(server, got, 1, 0));
    }
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

enum { VECTORS = 1000 };

// Half by sendv_all, half by sendv and going on by hand where it came short.
static void send_random_vectors(void *arg)
{
    pump *p = (pump *)arg;
    static unsigned char data[1 << 17];
    uint64_t pos = 0;
    for (int v = 0; v < VECTORS && p->err == 0; v++) {
        netio_buf bufs[150];
        size_t count = test_random(&p->seed) % 150 + 1, total = 0, at = 0, done = 0;
        for (size_t i = 0; i < count; i++) {
            size_t len = test_random(&p->seed) % 4 == 0 ? 0 : test_random(&p->seed) % 120;
            bufs[i].data = data + total;
            bufs[i].len = len;
            total += len;
        }
        bytes_at(data, total, pos);
        if (v % 2) {
            p->err = netio_sendv_all(p->s, bufs, count, &done, 20000);
            if (done != total) p->wrong = true;
        } else {
            while (done < total && p->err == 0) {
                ptrdiff_t n = netio_sendv(p->s, bufs + at, count - at, 20000);
                if (n < 0) p->err = (int)n;
                else done += (size_t)n;
                for (; n > 0; at++) {
                    size_t cut = (size_t)n < bufs[at].len ? (size_t)n : bufs[at].len;
                    bufs[at].data = (const unsigned char *)bufs[at].data + cut;
                    bufs[at].len -= cut;
                    n -= (ptrdiff_t)cut;
                    if (bufs[at].len > 0) break;
                }
            }
        }
        pos += total;
    }
    p->moved = pos;
    netio_shutdown(p->s, NETIO_SHUT_WRITE);
}

TEST(stream, a_thousand_random_vectors_through_small_buffers)
{
    netio_socket client, server;
    test_thread thread;
    pump p;
    static unsigned char got[1 << 15];
    uint32_t seed = 77;
    uint64_t pos = 0;
    ptrdiff_t n;
    small_pair(&client, &server, 8192);
    memset(&p, 0, sizeof p);
    p.s = client;
    p.seed = 5;
    test_thread_start(&thread, send_random_vectors, &p);
    for (;;) {
        netio_room rooms[100];
        size_t count = test_random(&seed) % 100 + 1, total = 0;
        for (size_t i = 0; i < count; i++) {
            rooms[i].data = got + total;
            rooms[i].cap = test_random(&seed) % 5 == 0 ? 0 : test_random(&seed) % 300;
            total += rooms[i].cap;
        }
        if (total == 0) continue;
        n = netio_recvv(server, rooms, count, 20000);
        if (n <= 0) break;
        if (!bytes_are(got, (size_t)n, pos)) break; // the rooms lie side by side in `got`
        pos += (uint64_t)n;
    }
    if (n > 0) netio_abort(&server); // so that the sender ends
    test_thread_join(&thread);
    CHECK_ERR(NETIO_EOF, n);
    CHECK_OK(p.err);
    CHECK(!p.wrong);
    CHECK_EQ(p.moved, pos);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

//================================================================================================
// Ends
//================================================================================================

TEST(stream, half_close_ends_one_direction)
{
    netio_socket client, server;
    test_thread thread;
    pump p;
    char buf[8];
    test_tcp_pair(&client, &server);
    CHECK_ERR(3, netio_send(client, "end", 3, 5000));
    CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE));
    CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE)); // again: no harm
    CHECK_OK(netio_recv_exact(server, buf, 3, NULL, 5000));
    CHECK_ERR(NETIO_EOF, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_ERR(NETIO_EPIPE, netio_send(client, "x", 1, 1000));
    memset(&p, 0, sizeof p);
    p.s = server;
    p.total = 1 << 20; // the other direction is open still
    test_thread_start(&thread, pump_send, &p);
    {
        pump in;
        memset(&in, 0, sizeof in);
        in.s = client;
        in.total = 1 << 20;
        pump_recv(&in);
        test_thread_join(&thread);
        pump_check(&p);
        pump_check(&in);
    }
    CHECK_OK(netio_shutdown(server, NETIO_SHUT_WRITE));
    CHECK_ERR(NETIO_EOF, netio_recv(client, buf, sizeof buf, 5000));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, shutdown_of_reading_of_both_and_of_nonsense)
{
    netio_socket client, server;
    char buf[8];
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_EINVAL, netio_shutdown(client, 0));
    CHECK_ERR(NETIO_EINVAL, netio_shutdown(client, 4));
    CHECK_ERR(NETIO_EINVAL, netio_shutdown(client, -1));
    CHECK_OK(netio_shutdown(client, NETIO_SHUT_READ));
    CHECK_OK(netio_shutdown(client, NETIO_SHUT_READ));
    CHECK_ERR(2, netio_send(client, "ok", 2, 1000)); // writing goes on
    CHECK_OK(netio_recv_exact(server, buf, 2, NULL, 5000));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_shutdown(client, NETIO_SHUT_BOTH));
    CHECK_OK(netio_shutdown(client, NETIO_SHUT_BOTH));
    CHECK_ERR(NETIO_EPIPE, netio_send(client, "x", 1, 1000));
    CHECK_ERR(NETIO_EOF, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_OK(netio_close(&server));
    {
        int err = netio_shutdown(client, NETIO_SHUT_BOTH); // both ends have gone
        CHECK(err == 0 || err == NETIO_ENOTCONN);
    }
    CHECK_OK(netio_close(&client));
}

TEST(stream, writing_to_a_dead_peer_keeps_failing_alike)
{
    for (int how = 0; how < 2; how++) {
        netio_socket client, server;
        ptrdiff_t n = 0, last[4];
        char c;
        test_tcp_pair(&client, &server);
        CHECK_OK(how ? netio_abort(&server) : netio_close(&server));
        if (how == 0) CHECK_ERR(NETIO_EOF, netio_recv(client, &c, 1, 5000));
        for (int i = 0; i < 1000 && n >= 0; i++) {
            n = netio_send(client, "x", 1, 1000);
            if (n >= 0) netio_wait(client, NETIO_EV_READ, 1); // let the reset come
        }
        CHECK(dead(n)); // and the process lives: no SIGPIPE
        for (int i = 0; i < 4; i++) {
            last[i] = netio_send(client, "x", 1, 1000);
            CHECK(dead(last[i]));
            CHECK_ERR(last[0], last[i]);
        }
        CHECK(dead(netio_send_all(client, "x", 1, NULL, 1000)));
        CHECK_OK(netio_close(&client));
    }
}

TEST(stream, abort_resets_the_peer)
{
    netio_socket client, server, datagram;
    char buf[8];
    int err;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_abort(&client));
    CHECK(client == NETIO_INVALID_SOCKET);
    CHECK(reset_or_wine(netio_recv(server, buf, sizeof buf, 5000)));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_bind(&datagram, "127.0.0.1:0", NULL));
    err = netio_abort(&datagram);
    CHECK_ERR(NETIO_ENOTSUP, err);
    CHECK_OK(netio_close(&datagram)); // it is open still
}

TEST(stream, data_fin_and_hangup_together_lose_no_byte)
{
    // A client that writes, ends its stream and reads late finds data, end and hang-up at once.
    enum { REPLY = 60000 };
    for (int late = 0; late < 2; late++) {
        netio_socket client, server;
        static unsigned char buf[REPLY];
        size_t total = 0;
        ptrdiff_t n;
        test_tcp_pair(&client, &server);
        CHECK_ERR(3, netio_send(client, "ask", 3, 5000));
        CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE));
        CHECK_OK(netio_recv_exact(server, buf, 3, NULL, 5000));
        CHECK_ERR(NETIO_EOF, netio_recv(server, buf, 1, 5000));
        bytes_at(buf, REPLY, 0);
        CHECK_OK(netio_send_all(server, buf, REPLY, NULL, 5000));
        CHECK_OK(netio_close(&server));
        if (late) test_sleep_ms(50); // so that everything is there
        memset(buf, 0, sizeof buf);
        for (;;) {
            int ready = netio_wait(client, NETIO_EV_READ, 5000);
            CHECK_EQ(NETIO_EV_READ, ready & NETIO_EV_READ);
            n = netio_recv(client, buf + total, total < REPLY ? 7000 % (REPLY - total + 1) + 1 : 1,
                           0);
            if (n == NETIO_EAGAIN) continue;
            if (n <= 0) break;
            total += (size_t)n;
            if (total >= REPLY) break;
        }
        CHECK_EQ(REPLY, total);
        CHECK(bytes_are(buf, REPLY, 0));
        CHECK_ERR(NETIO_EOF, netio_recv(client, buf, 1, 5000));
        CHECK_OK(netio_close(&client));
    }
}

typedef struct replier {
    netio_socket s;
    size_t len;
    int sent, closed; // results
} replier;

// Answer on the first bytes, leave the rest of the request unread, close gracefully.
static void reply_and_close(void *arg)
{
    replier *r = (replier *)arg;
    char first[16];
    pump out;
    r->sent = (int)netio_recv(r->s, first, sizeof first, 10000);
    if (r->sent < 0) return;
    memset(&out, 0, sizeof out);
    out.s = r->s;
    out.total = r->len;
    out.seed = 3;
    pump_send(&out);
    r->sent = out.err;
    r->closed = netio_close_gracefully(&r->s, 4 << 20, 10000);
}

TEST(stream, graceful_close_delivers_the_whole_reply_over_unread_requests)
{
    enum { REQUEST = 1000000, REPLY = 3000000 };
    for (int round = 0; round < (slow_machine() ? 1 : 3); round++) {
        netio_socket client;
        test_thread thread[2];
        replier r;
        pump ask, in;
        char c;
        memset(&r, 0, sizeof r);
        memset(&ask, 0, sizeof ask);
        memset(&in, 0, sizeof in);
        test_tcp_pair(&client, &r.s);
        r.len = REPLY;
        ask.s = in.s = client;
        ask.total = REQUEST;
        in.total = REPLY;
        in.late_ms = 100;
        in.seed = 9;
        test_thread_start(&thread[0], reply_and_close, &r);
        test_thread_start(&thread[1], pump_send, &ask);
        pump_recv(&in);
        test_thread_join(&thread[1]);
        ptrdiff_t end = netio_recv(client, &c, 1, 10000);
        CHECK_OK(netio_close(&client));
        test_thread_join(&thread[0]);
        pump_check(&in);
        pump_check(&ask);
        CHECK_ERR(NETIO_EOF, end);
        CHECK_OK(r.sent);
        CHECK_OK(r.closed);
        CHECK(r.s == NETIO_INVALID_SOCKET);
    }
}

TEST(stream, graceful_close_is_bounded_by_time)
{
    netio_socket client, server;
    uint64_t from;
    char c;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_send_all(server, "bye", 3, NULL, 5000));
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_close_gracefully(&server, 1 << 20, 150)); // the peer stays
    CHECK_BETWEEN(149, 2500, test_ms() - from);
    CHECK(server == NETIO_INVALID_SOCKET);
    {
        char buf[4];
        CHECK_OK(netio_recv_exact(client, buf, 3, NULL, 5000)); // what was sent had arrived
        CHECK_ERR(NETIO_EOF, netio_recv(client, &c, 1, 5000));
    }
    CHECK_OK(netio_close(&client));
    test_tcp_pair(&client, &server);
    CHECK(netio_close_gracefully(&server, 1 << 20, 0) < 0); // no wait at all
    CHECK(server == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_close(&client));
}

TEST(stream, graceful_close_is_bounded_by_bytes)
{
    netio_socket client, server;
    test_thread thread;
    pump flood;
    int err;
    test_tcp_pair(&client, &server);
    memset(&flood, 0, sizeof flood);
    flood.s = client;
    flood.total = (uint64_t)1 << 40; // far more than anybody will take
    test_thread_start(&thread, pump_send, &flood);
    err = netio_close_gracefully(&server, 100000, 10000);
    test_thread_join(&thread);
    CHECK_ERR(NETIO_EMSGSIZE, err);
    CHECK(server == NETIO_INVALID_SOCKET);
    CHECK(dead(flood.err));
    CHECK_OK(netio_close(&client));
}

TEST(stream, graceful_close_of_what_is_not_connected_closes)
{
    netio_socket client, server, listener;
    int err;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_abort(&client));
    netio_wait(server, NETIO_EV_READ, 5000);
    err = netio_close_gracefully(&server, 100, 1000); // the peer is gone already
    CHECK(err == 0 || err == NETIO_ECONNRESET || err == NETIO_ENOTCONN);
    CHECK(server == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    netio_close_gracefully(&listener, 100, 1000);
    CHECK(listener == NETIO_INVALID_SOCKET);
}

//================================================================================================
// Files
//================================================================================================

static FILE *file_of(size_t len, uint64_t hole)
{
    FILE *f = fopen(test_path("file"), "wb+");
    unsigned char buf[4096];
    CHECK(f != NULL);
    if (hole) CHECK_EQ(0, os_seek(f, hole));
    for (size_t at = 0; at < len; at += sizeof buf) {
        size_t n = len - at < sizeof buf ? len - at : sizeof buf;
        bytes_at(buf, n, at);
        CHECK_EQ(n, fwrite(buf, 1, n, f));
    }
    CHECK_EQ(0, fflush(f));
    return f;
}

static void file_end(FILE *f)
{
    fclose(f);
    remove(test_path("file"));
}

TEST(stream, sendfile_sends_a_large_file_whole)
{
    netio_socket client, server;
    size_t len = slow_machine() ? 1 << 20 : 100 << 20;
    FILE *f = file_of(len, 0);
    test_thread thread;
    pump in;
    uint64_t done = 0;
    int64_t position = os_position(f);
    int err;
    test_tcp_pair(&client, &server);
    memset(&in, 0, sizeof in);
    in.s = server;
    in.total = len;
    test_thread_start(&thread, pump_recv, &in);
    err = netio_sendfile(client, os_file(f), 0, len, &done, 20000);
    test_thread_join(&thread);
    CHECK_OK(err);
    CHECK_EQ(len, done);
    pump_check(&in);
    CHECK_EQ(position, os_position(f));
    file_end(f);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, sendfile_honours_offset_and_length)
{
    static const struct {
        uint64_t off, len;
    } parts[] = {{0, 1}, {0, 0}, {1, 4095}, {4096, 4096}, {17, 50000}, {99999, 1}, {100000, 0}};
    netio_socket client, server;
    FILE *f = file_of(100000, 0);
    static unsigned char buf[100000];
    uint64_t done;
    int64_t position;
    test_tcp_pair(&client, &server);
    CHECK_EQ(0, os_seek(f, 123));
    position = os_position(f);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        done = 99;
        CHECK_OK(netio_sendfile(client, os_file(f), parts[i].off, parts[i].len, &done, 5000));
        CHECK_EQ(parts[i].len, done);
        CHECK_OK(netio_recv_exact(server, buf, (size_t)parts[i].len, NULL, 5000));
        CHECK(bytes_are(buf, (size_t)parts[i].len, parts[i].off));
        CHECK_ERR(NETIO_EAGAIN, netio_recv(server, buf, 1, 0));
        CHECK_EQ(position, os_position(f)); // the file's own position does not move
    }
    CHECK_OK(netio_sendfile(client, os_file(f), 0, 5, NULL, 5000)); // `done` may be NULL
    CHECK_OK(netio_recv_exact(server, buf, 5, NULL, 5000));
    file_end(f);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, sendfile_beyond_two_and_four_gigabytes)
{
    static const uint64_t holes[] = {((uint64_t)1 << 31) - 100, ((uint64_t)1 << 32) + 5000};
    netio_socket client, server;
    static unsigned char buf[30000];
    uint64_t done = 0;
    test_tcp_pair(&client, &server);
    for (int i = 0; i < 2; i++) {
        FILE *f = file_of(sizeof buf, holes[i]); // sparse
        CHECK_OK(netio_sendfile(client, os_file(f), holes[i], sizeof buf, &done, 5000));
        CHECK_EQ(sizeof buf, done);
        CHECK_OK(netio_recv_exact(server, buf, sizeof buf, NULL, 5000));
        CHECK(bytes_are(buf, sizeof buf, 0));
        file_end(f);
    }
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, sendfile_of_a_short_file_is_truncated)
{
    netio_socket client, server;
    FILE *f = file_of(1000, 0);
    unsigned char buf[1000];
    uint64_t done = 0;
    test_tcp_pair(&client, &server);
    CHECK_ERR(NETIO_ETRUNCATED, netio_sendfile(client, os_file(f), 0, 1001, &done, 5000));
    CHECK_EQ(1000, done);
    CHECK_OK(netio_recv_exact(server, buf, 1000, NULL, 5000));
    CHECK(bytes_are(buf, 1000, 0));
    CHECK_ERR(NETIO_ETRUNCATED, netio_sendfile(client, os_file(f), 5000, 1, &done, 5000));
    CHECK_EQ(0, done);
    CHECK_ERR(NETIO_EAGAIN, netio_recv(server, buf, 1, 0));
    file_end(f);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, sendfile_reads_a_pipe_from_where_it_stands)
{
    netio_socket client, server;
    netio_file ends[2] = {0, 0};
    unsigned char buf[3000];
    uint64_t done = 0;
    test_tcp_pair(&client, &server);
    CHECK(os_pipe(ends));
    bytes_at(buf, sizeof buf, 0);
    os_pipe_write(ends[1], buf, sizeof buf);
    CHECK_OK(netio_sendfile(client, ends[0], 0, 1000, &done, 5000));
    CHECK_EQ(1000, done);
    CHECK_OK(netio_recv_exact(server, buf, 1000, NULL, 5000));
    CHECK(bytes_are(buf, 1000, 0));
    os_file_close(ends[1]);
    CHECK_ERR(NETIO_ETRUNCATED, netio_sendfile(client, ends[0], 0, 3000, &done, 5000));
    CHECK_EQ(2000, done);
    CHECK_OK(netio_recv_exact(server, buf, 2000, NULL, 5000));
    CHECK(bytes_are(buf, 2000, 1000));
    os_file_close(ends[0]);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(stream, sendfile_to_a_peer_that_does_not_read_ends_on_time)
{
    netio_socket client, server;
    FILE *f = file_of(8 << 20, 0);
    static unsigned char buf[65536];
    uint64_t done = 0, got = 0, from;
    for (int timeout_ms = 0; timeout_ms <= 150; timeout_ms += 150) {
        small_pair(&client, &server, 16384);
        from = test_ms();
        CHECK_ERR(timeout_ms ? NETIO_ETIMEDOUT : NETIO_EAGAIN,
                  netio_sendfile(client, os_file(f), 0, 8 << 20, &done, timeout_ms));
        CHECK_BETWEEN(timeout_ms ? timeout_ms - 1 : 0, timeout_ms + 2500, test_ms() - from);
        CHECK(done < 8 << 20);
        CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE));
        for (got = 0;;) {
            ptrdiff_t n = netio_recv(server, buf, sizeof buf, 5000);
            if (n == NETIO_EOF) break;
            CHECK(n > 0);
            CHECK(bytes_are(buf, (size_t)n, got));
            got += (uint64_t)n;
        }
        CHECK_EQ(done, got);
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
    }
    file_end(f);
}

TEST(stream, sendfile_of_what_cannot_be_read_is_an_error)
{
    netio_socket client, server;
    uint64_t done = 9;
    char c;
    int err;
    test_tcp_pair(&client, &server);
    err = netio_sendfile(client, (netio_file)-1, 0, 10, &done, 1000);
    CHECK(err < 0 && err != NETIO_ETRUNCATED && err != NETIO_EOF);
    CHECK_EQ(0, done);
    CHECK_ERR(NETIO_EAGAIN, netio_recv(server, &c, 1, 0));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

#ifndef _WIN32
TEST(stream, sendfile_contains_its_sigpipe)
{
    netio_socket client, server;
    FILE *f = file_of(200000, 0);
    uint64_t done;
    sigset_t pipe_only, before, after, pending;
    struct sigaction act;
    int err = 0;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_abort(&server));
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    for (int i = 0; i < 5; i++) {
        err = netio_sendfile(client, os_file(f), 0, 200000, &done, 2000);
        CHECK(dead(err)); // and the process lives
    }
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK_EQ(sigismember(&before, SIGPIPE), sigismember(&after, SIGPIPE));
    sigpending(&pending);
    CHECK_EQ(0, sigismember(&pending, SIGPIPE)); // its own was eaten
    CHECK_EQ(0, sigaction(SIGPIPE, NULL, &act));
    CHECK(act.sa_handler == SIG_DFL);
    // One that was pending before is the program's, and stays.
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, NULL);
    raise(SIGPIPE);
    err = netio_sendfile(client, os_file(f), 0, 200000, &done, 2000);
    sigpending(&pending);
    {
        int number = 0, stayed = sigismember(&pending, SIGPIPE);
        if (stayed) sigwait(&pipe_only, &number);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        CHECK(stayed);
        CHECK_EQ(SIGPIPE, number);
    }
    CHECK(dead(err));
    file_end(f);
    CHECK_OK(netio_close(&client));
}
#else
TEST(stream, sendfile_contains_its_sigpipe) { SKIP("no SIGPIPE here"); }
#endif

//================================================================================================
// Sockets made elsewhere
//================================================================================================

TEST(stream, an_adopted_blocking_socket_keeps_every_limit)
{
    netio_socket ends[2], opener;
    unsigned found = 0;
    uint64_t from;
    char c;
    CHECK_OK(netio_bind(&opener, "127.0.0.1:0", NULL)); // on Windows this starts Winsock
    raw_pair(ends);
    CHECK_OK(netio_adopt(ends[0], &found));
    CHECK(os_nonblocking(ends[0]));
    CHECK_ERR(NETIO_EAGAIN, netio_recv(ends[0], &c, 1, 0));
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(ends[0], &c, 1, 100));
    CHECK_BETWEEN(99, 2000, test_ms() - from);
    fill_up(ends[0]);
    CHECK_ERR(NETIO_EAGAIN, netio_send(ends[0], "x", 1, 0));
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_send(ends[0], "x", 1, 100));
    CHECK_BETWEEN(99, 2000, test_ms() - from);
    CHECK_OK(netio_release(ends[0], found));
    if (os_mode_can_be_asked) CHECK(!os_nonblocking(ends[0]));
    CHECK_OK(netio_close(&ends[0]));
    CHECK_OK(netio_close(&ends[1]));
    CHECK_OK(netio_close(&opener));
}

TEST(stream, the_mode_of_a_socket_does_not_matter_to_the_calls)
{
    netio_socket ends[2], opener;
    uint64_t from;
    size_t done = 0;
    char c;
    static char large[1 << 20];
    if (!os_mode_can_be_asked) SKIP("Windows has no call that ignores the mode: adopt first");
    CHECK_OK(netio_bind(&opener, "127.0.0.1:0", NULL));
    raw_pair(ends); // blocking, and not adopted
    CHECK_ERR(NETIO_EAGAIN, netio_recv(ends[0], &c, 1, 0));
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(ends[0], &c, 1, 100));
    CHECK_BETWEEN(99, 2000, test_ms() - from);
    CHECK_ERR(1, netio_send(ends[1], "m", 1, 1000));
    CHECK_ERR(1, netio_peek(ends[0], &c, 1, 1000));
    CHECK_ERR(1, netio_recv(ends[0], &c, 1, 1000));
    CHECK_EQ('m', c);
    from = test_ms();
    for (int i = 0; i < 64; i++) {
        if (netio_send_all(ends[0], large, sizeof large, &done, 100) == NETIO_ETIMEDOUT) break;
        from = test_ms();
    }
    CHECK_BETWEEN(99, 2000, test_ms() - from);
    CHECK(done < sizeof large);
    CHECK_OK(netio_close(&ends[0]));
    CHECK_OK(netio_close(&ends[1]));
    CHECK_OK(netio_close(&opener));
}

//================================================================================================
// Signals
//================================================================================================

// What a call returned under the storm, and how long it took.
typedef struct outcome {
    const char *name;
    ptrdiff_t result;
    uint64_t ms;
} outcome;

TEST(stream, a_signal_storm_lengthens_no_deadline)
{
    netio_socket client, server, listener, out, datagram;
    outcome o[12];
    char buf[64];
    size_t done;
    uint64_t file_done;
    int count = 0, hits;
    FILE *f = file_of(8 << 20, 0);
    netio_room room;
    netio_buf piece;
    room.data = buf;
    room.cap = sizeof buf;
    piece.data = buf;
    piece.len = sizeof buf;
    memset(buf, 0, sizeof buf);
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&datagram, "127.0.0.1:0", NULL));
    small_pair(&client, &server, 16384);
    fill_up(client);
    if (!storm_begin()) {
        file_end(f);
        SKIP("no signals of POSIX here");
    }
// clang-format off
#define UNDER_STORM(call) \
    o[count].name = #call, o[count].ms = test_ms(), o[count].result = (call), \
    o[count].ms = test_ms() - o[count].ms, count++
    UNDER_STORM(netio_recv(client, buf, sizeof buf, 300));
    UNDER_STORM(netio_recv_exact(client, buf, sizeof buf, &done, 150));
    UNDER_STORM(netio_recvv(client, &room, 1, 150));
    UNDER_STORM(netio_peek(client, buf, sizeof buf, 150));
    UNDER_STORM(netio_recvfrom(datagram, buf, sizeof buf, NULL, 150));
    UNDER_STORM(netio_wait(client, NETIO_EV_READ, 150));
    UNDER_STORM(netio_accept(&out, listener, NULL, 150));
    UNDER_STORM(netio_send(client, buf, sizeof buf, 150));
    UNDER_STORM(netio_send_all(client, buf, sizeof buf, &done, 150));
    UNDER_STORM(netio_sendv_all(client, &piece, 1, &done, 150));
    UNDER_STORM(netio_sendfile(client, os_file(f), 0, 8 << 20, &file_done, 150));
    UNDER_STORM(netio_close_gracefully(&server, 1 << 20, 150));
#undef UNDER_STORM
    // clang-format on
    hits = storm_end();
    CHECK(hits > count * 20);
    for (int i = 0; i < count; i++) {
        uint64_t limit = i == 0 ? 300 : 150;
        if (o[i].result != NETIO_ETIMEDOUT || o[i].ms + 1 < limit || o[i].ms > limit + 2000)
            test_fail(__FILE__, __LINE__, "%s: %s after %d ms", o[i].name,
                      netio_errname(o[i].result), (int)o[i].ms);
    }
    file_end(f);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&listener));
    CHECK_OK(netio_close(&datagram));
}

TEST(stream, a_signal_storm_loses_no_byte)
{
    // Signals hit the thread that runs the test: it sends in one round and receives in the other.
    for (int round = 0; round < 2; round++) {
        netio_socket client, server;
        test_thread thread;
        pump out, in;
        int hits;
        small_pair(&client, &server, 8192);
        memset(&out, 0, sizeof out);
        memset(&in, 0, sizeof in);
        out.s = client;
        in.s = server;
        out.total = in.total = slow_machine() ? 1 << 20 : 16 << 20;
        if (!storm_begin()) SKIP("no signals of POSIX here");
        test_thread_start(&thread, round ? pump_recv : pump_send, round ? &in : &out);
        if (round) pump_send(&out);
        else pump_recv(&in);
        test_thread_join(&thread);
        hits = storm_end();
        CHECK(hits > 0);
        pump_check(&out);
        pump_check(&in);
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
    }
}

//================================================================================================

// clang-format off
TEST_MAIN("stream",
    T(stream, recv_tells_nothing_data_end_and_reset_apart),
    T(stream, empty_and_null_buffers),
    T(stream, a_full_buffer_is_eagain_and_nothing_is_lost),
    T(stream, peek_takes_nothing),
    T(stream, timeout_is_exact_and_the_socket_stays_usable),
    T(stream, megabytes_each_way_through_small_buffers_arrive_whole),
    T(stream, one_call_sends_and_one_receives_eight_megabytes),
    T(stream, recv_exact_says_how_far_it_got),
    T(stream, send_all_says_how_far_it_got),
    T(stream, send_all_to_a_peer_that_leaves_says_how_far_it_got),
    T(stream, partial_progress_does_not_extend_a_deadline),
    T(stream, one_deadline_serves_several_calls),
    T(stream, pieces_travel_in_order_with_empty_ones_between),
    T(stream, only_empty_pieces_are_nothing),
    T(stream, more_pieces_than_the_os_takes_at_once),
    T(stream, a_thousand_random_vectors_through_small_buffers),
    T(stream, half_close_ends_one_direction),
    T(stream, shutdown_of_reading_of_both_and_of_nonsense),
    T(stream, writing_to_a_dead_peer_keeps_failing_alike),
    T(stream, abort_resets_the_peer),
    T(stream, data_fin_and_hangup_together_lose_no_byte),
    T(stream, graceful_close_delivers_the_whole_reply_over_unread_requests),
    T(stream, graceful_close_is_bounded_by_time),
    T(stream, graceful_close_is_bounded_by_bytes),
    T(stream, graceful_close_of_what_is_not_connected_closes),
    T(stream, sendfile_sends_a_large_file_whole),
    T(stream, sendfile_honours_offset_and_length),
    T(stream, sendfile_beyond_two_and_four_gigabytes),
    T(stream, sendfile_of_a_short_file_is_truncated),
    T(stream, sendfile_reads_a_pipe_from_where_it_stands),
    T(stream, sendfile_to_a_peer_that_does_not_read_ends_on_time),
    T(stream, sendfile_of_what_cannot_be_read_is_an_error),
    T(stream, sendfile_contains_its_sigpipe),
    T(stream, an_adopted_blocking_socket_keeps_every_limit),
    T(stream, the_mode_of_a_socket_does_not_matter_to_the_calls),
    T(stream, a_signal_storm_lengthens_no_deadline),
    T(stream, a_signal_storm_loses_no_byte))
