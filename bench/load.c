// load.c: a closed-loop load generator for servers of TCP, UDP and TLS on the loopback.
//
//   load MODE --port N --pid SERVER_PID [options]
//
// MODE   echo    --conns connections, messages of --size bytes, --pipe of them in flight on each;
//                the server sends back what it gets
//        sink    one connection, the server discards what it is sent as fast as it can be
//        source  one connection, the server sends as fast as it can
//        churn   connect, one echo, close with RST so that no port waits in TIME_WAIT; --conns at
//                a time
//        idle    the server's memory for each of --conns connections, before and after one echo
//        udp     datagram echo, --pipe in flight
//        fan     --conns subscribers and one publisher, whose every line reaches all of them
//
// --tls makes echo, sink, source, churn and idle speak TLS 1.3; with --resume churn resumes one
// session. --secs and --warm are the length of the measured window and of what comes before it,
// during which the echoed bytes are checked. With --count N echo has no window: it ends after
// exactly N messages, all of them checked.
//
// One line of key=value pairs comes out. cpu_us is the CPU time of the server (user and system, all
// its threads) for each message (echo, udp), connection (churn), delivery (fan) or MiB (sink,
// source). foreign is how many cores' worth of CPU time other programs took meanwhile: a run with
// much of it says little about rates and latencies.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load_tls.h"

#define PERIOD 65521 // the payload repeats with a prime period: misplaced bytes are noticed
#define CHUNK (256 * 1024)

static struct {
    const char *mode;
    const char *mine; // processes that are ours, and so not foreign: "pid,pid"
    int port, pid, conns, size, pipe, cpu;
    double secs, warm;
    uint64_t count;
    bool tls, resume;
} o = {.conns = 50, .size = 64, .pipe = 1, .cpu = 1, .secs = 2, .warm = 0.3};

static unsigned char *pattern; // PERIOD + CHUNK bytes
static unsigned char *rbuf;    // CHUNK bytes

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void fail(const char *what)
{
    fprintf(stderr, "load: %s\n", what);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (!p) die("memory");
    return p;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// --- CPU time and memory of processes ------------------------------------------------------------

static uint64_t ticks_to_ns(uint64_t ticks)
{
    return ticks * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t stat_cpu_ns(int pid)
{
    char path[64], line[1024];
    unsigned long long user = 0, sys = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    char *p = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
    fclose(f);
    if (!p) return 0;
    sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &sys);
    return ticks_to_ns(user + sys);
}

// schedstat counts nanoseconds where stat counts ticks of 10 ms; both include the kernel's work for
// the process.
static uint64_t cpu_ns(int pid)
{
    char path[384];
    uint64_t sum = 0;
    struct dirent *e;
    if (!pid) return 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = opendir(path);
    if (!d) return 0;
    while ((e = readdir(d)) != NULL) {
        unsigned long long ns = 0;
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, e->d_name);
        FILE *f = fopen(path, "r");
        if (!f) continue;
        if (fscanf(f, "%llu", &ns) == 1) sum += ns;
        fclose(f);
    }
    closedir(d);
    return sum ? sum : stat_cpu_ns(pid);
}

static uint64_t mine_ns(void)
{
    uint64_t sum = 0;
    const char *p = o.mine;
    while (p && *p) {
        sum += cpu_ns(atoi(p));
        p = strchr(p, ',');
        if (p) p++;
    }
    return sum;
}

// The CPU time of everything on the machine.
static uint64_t busy_ns(void)
{
    unsigned long long user = 0, nice = 0, sys = 0, irq = 0, soft = 0;
    FILE *f = fopen("/proc/stat", "r");
    if (!f) return 0;
    if (fscanf(f, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice, &sys, &irq, &soft) < 3) {
        user = 0;
    }
    fclose(f);
    return ticks_to_ns(user + nice + sys + irq + soft);
}

static long server_rss(void)
{
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", o.pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

// --- latency: 64 linear steps an octave, so 1.6 % at worst ---------------------------------------

#define STEPS 64

static uint32_t hist[STEPS * 40];
static uint64_t hist_n;

static void hist_add(uint64_t ns, uint32_t n)
{
    size_t octave = 0;
    while (ns >= 2 * STEPS) {
        ns >>= 1;
        octave++;
    }
    size_t i = ns < STEPS ? (size_t)ns : octave * STEPS + (size_t)ns;
    if (i >= STEPS * 40) i = STEPS * 40 - 1;
    hist[i] += n;
    hist_n += n;
}

static double hist_us(double quantile)
{
    uint64_t want = (uint64_t)((double)hist_n * quantile), seen = 0;
    for (size_t i = 0; i < STEPS * 40; i++) {
        seen += hist[i];
        if (seen <= want) continue;
        if (i < 2 * STEPS) return (double)i / 1000.0;
        return (double)((uint64_t)(i % STEPS + STEPS) << (i / STEPS - 1)) / 1000.0;
    }
    return 0;
}

// --- the measured window -------------------------------------------------------------------------

static struct {
    uint64_t t0, end, cpu0, my0, busy0, mine0;
    uint64_t warm_end;
    bool on;
} w;

static void window_begin(void)
{
    memset(hist, 0, sizeof hist);
    hist_n = 0;
    w.busy0 = busy_ns();
    w.mine0 = mine_ns();
    w.cpu0 = cpu_ns(o.pid);
    w.my0 = cpu_ns((int)getpid());
    w.t0 = now_ns();
    w.end = w.t0 + (uint64_t)(o.secs * 1e9);
    w.on = true;
}

static void warm_begin(void) { w.warm_end = now_ns() + (uint64_t)(o.warm * 1e9); }

enum { GO_ON, BEGUN, OVER };

// BEGUN once, when the warm-up is over: what was counted until then does not count.
static int window_at(uint64_t t)
{
    if (o.count) return GO_ON;
    if (!w.on && t >= w.warm_end) {
        window_begin();
        return BEGUN;
    }
    return w.on && t >= w.end ? OVER : GO_ON;
}

static void report(double ops, const char *unit)
{
    double ns = (double)(now_ns() - w.t0), cpu = (double)(cpu_ns(o.pid) - w.cpu0);
    double mine = (double)(cpu_ns((int)getpid()) - w.my0), others = (double)(mine_ns() - w.mine0);
    double foreign = (double)(busy_ns() - w.busy0) - others - cpu - mine;
    printf("mode=%s%s%s conns=%d size=%d pipe=%d secs=%.3f unit=%s ops=%.0f rate=%.1f ", o.mode,
           o.tls ? "-tls" : "", o.resume ? "-resume" : "", o.conns, o.size, o.pipe, ns / 1e9, unit,
           ops, ops / (ns / 1e9));
    printf("cpu_us=%.4f p50=%.1f p99=%.1f p999=%.1f ", ops > 0 ? cpu / 1000.0 / ops : 0.0,
           hist_us(.5), hist_us(.99), hist_us(.999));
    printf("srv_util=%.3f cli_util=%.3f foreign=%.3f\n", cpu / ns, mine / ns,
           foreign > 0 ? foreign / ns : 0.0);
}

// --- connections ---------------------------------------------------------------------------------

struct conn {
    int fd;
    bool want_out, handshaking;
    tls *tls;
    uint64_t tx, rx, owed; // bytes written, bytes read, bytes still to write
    uint32_t head, tail;   // of the ring of send times
    uint64_t *times;
};

static struct sockaddr_in server_addr(void)
{
    struct sockaddr_in a;
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons((uint16_t)o.port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static int tcp_connect(void)
{
    struct sockaddr_in a = server_addr();
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) die("connect");
    return fd;
}

static void nonblock(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static tls *tls_connect(int fd)
{
    tls *t = tls_new(fd);
    if (!t || tls_handshake(t) != 1) fail("TLS handshake");
    return t;
}

// Bytes; 0: ended, -1: would block
static ssize_t plain_result(ssize_t n)
{
    if (n >= 0) return n;
    return errno == EAGAIN || errno == EINTR ? -1 : 0;
}

static ssize_t conn_read(struct conn *c, void *p, size_t n)
{
    if (c->tls) return tls_read(c->tls, p, n);
    return plain_result(recv(c->fd, p, n, MSG_DONTWAIT));
}

static ssize_t conn_write(struct conn *c, const void *p, size_t n)
{
    if (c->tls) return tls_write(c->tls, p, n);
    return plain_result(send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void watch(int ep, int op, struct conn *c, uint32_t events)
{
    struct epoll_event e;
    e.events = events;
    e.data.ptr = c;
    if (epoll_ctl(ep, op, c->fd, &e) < 0) die("epoll_ctl");
}

static uint64_t progress; // when the server last gave a sign of life

static int wait_for_some(int ep, struct epoll_event *ev, int cap)
{
    uint64_t patience = o.count ? 60000000000u : 5000000000u; // counting may run under valgrind
    int n = epoll_wait(ep, ev, cap, 1000);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    if (n <= 0 && now_ns() - progress > patience) fail("the server stalled");
    return n;
}

static void conn_flush(int ep, struct conn *c)
{
    while (c->owed) {
        size_t n = c->owed > CHUNK ? CHUNK : (size_t)c->owed;
        ssize_t r = conn_write(c, pattern + c->tx % PERIOD, n);
        if (r == 0) fail("the server closed a connection (write)");
        if (r < 0) {
            if (!c->want_out) watch(ep, EPOLL_CTL_MOD, c, EPOLLIN | EPOLLOUT);
            c->want_out = true;
            return;
        }
        c->tx += (uint64_t)r;
        c->owed -= (uint64_t)r;
    }
    if (c->want_out) watch(ep, EPOLL_CTL_MOD, c, EPOLLIN);
    c->want_out = false;
}

static void verify(uint64_t off, size_t n)
{
    for (size_t i = 0, k; i < n; i += k) {
        k = n - i > CHUNK ? CHUNK : n - i;
        if (memcmp(rbuf + i, pattern + (off + i) % PERIOD, k) != 0) {
            fail("the echo differs from what was sent");
        }
    }
}

// --- echo ----------------------------------------------------------------------------------------

static uint64_t echo_issued;

// Up to `n` more messages, as many as --count still allows.
static void echo_send(struct conn *c, uint64_t n, uint64_t t)
{
    uint32_t cap = (uint32_t)o.pipe + 1;
    if (o.count && n > o.count - echo_issued) n = o.count - echo_issued;
    echo_issued += n;
    c->owed += n * (uint64_t)o.size;
    for (; n; n--) {
        c->times[c->tail] = t;
        c->tail = (c->tail + 1) % cap;
    }
}

// How many messages have come back.
static uint64_t echo_receive(struct conn *c)
{
    uint64_t before = c->rx / (uint64_t)o.size, done;
    do {
        ssize_t r = conn_read(c, rbuf, CHUNK);
        if (r < 0) break;
        if (r == 0) fail("the server closed a connection (read)");
        if (!w.on || o.count) verify(c->rx, (size_t)r);
        c->rx += (uint64_t)r;
    } while (c->tls && tls_pending(c->tls));
    done = c->rx / (uint64_t)o.size - before;
    if (!done) return 0;
    progress = now_ns();
    for (uint64_t i = 0; i < done; i++) {
        hist_add(progress - c->times[c->head], 1);
        c->head = (c->head + 1) % ((uint32_t)o.pipe + 1);
    }
    echo_send(c, done, progress);
    return done;
}

static void run_echo(void)
{
    struct epoll_event ev[512];
    struct conn *cs = zeroed((size_t)o.conns, sizeof *cs);
    int ep = epoll_create1(EPOLL_CLOEXEC);
    uint64_t ops = 0;
    for (int i = 0; i < o.conns; i++) {
        struct conn *c = &cs[i];
        c->fd = tcp_connect();
        if (o.tls) c->tls = tls_connect(c->fd);
        nonblock(c->fd);
        c->times = zeroed((size_t)o.pipe + 1, sizeof *c->times);
        watch(ep, EPOLL_CTL_ADD, c, EPOLLIN);
    }
    if (o.count) window_begin();
    warm_begin();
    progress = now_ns();
    for (int i = 0; i < o.conns; i++) {
        echo_send(&cs[i], (uint64_t)o.pipe, progress);
        conn_flush(ep, &cs[i]);
    }
    while (!o.count || ops < o.count) {
        int n = wait_for_some(ep, ev, 512), at = window_at(now_ns());
        if (at == BEGUN) ops = 0;
        if (at == OVER) break;
        for (int i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;
            if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) ops += echo_receive(c);
            if (c->owed) conn_flush(ep, c);
        }
    }
    report((double)ops, "msg");
}

// --- sink, source --------------------------------------------------------------------------------

static void run_bulk(bool sending)
{
    struct conn c;
    struct timeval patience = {5, 0};
    uint64_t bytes = 0;
    memset(&c, 0, sizeof c);
    c.fd = tcp_connect();
    setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(c.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (o.tls) c.tls = tls_connect(c.fd);
    warm_begin();
    for (;;) {
        ssize_t n;
        if (c.tls) {
            n = sending ? tls_write(c.tls, pattern, 16384) : tls_read(c.tls, rbuf, CHUNK);
        } else {
            n = sending ? send(c.fd, pattern, CHUNK, MSG_NOSIGNAL) : recv(c.fd, rbuf, CHUNK, 0);
        }
        if (n <= 0) fail("the transfer stopped");
        bytes += (uint64_t)n;
        int at = window_at(now_ns());
        if (at == BEGUN) bytes = 0;
        if (at == OVER) break;
    }
    report((double)bytes / 1048576.0, "MiB");
}

// --- churn ---------------------------------------------------------------------------------------

static uint64_t churn_resumed;

static void churn_open(int ep, struct conn *c)
{
    struct linger reset = {1, 0};
    c->fd = tcp_connect();
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    c->rx = 0;
    *c->times = now_ns();
    if (o.tls) {
        nonblock(c->fd);
        c->tls = tls_new(c->fd);
        c->handshaking = true;
        if (!c->tls || tls_handshake(c->tls) < 0) fail("TLS handshake");
    } else if (send(c->fd, pattern, (size_t)o.size, MSG_NOSIGNAL) != o.size) {
        die("send");
    }
    watch(ep, EPOLL_CTL_ADD, c, EPOLLIN);
}

static void churn_close(struct conn *c)
{
    if (c->tls) {
        if (tls_resumed(c->tls)) churn_resumed++;
        tls_free(c->tls);
        c->tls = NULL;
    }
    close(c->fd);
}

// The session that all others resume: of a connection that lives until its ticket has come.
static void churn_first_session(void)
{
    int fd = tcp_connect();
    tls *t = tls_connect(fd);
    if (tls_write(t, pattern, 64) != 64 || tls_read(t, rbuf, 64) <= 0) fail("first TLS echo");
    if (!tls_keep_session(t)) fail("the server gave no session ticket");
    tls_free(t);
    close(fd);
}

// Whether the connection has its echo.
static bool churn_step(struct conn *c)
{
    if (c->handshaking) {
        int r = tls_handshake(c->tls);
        if (r < 0) fail("TLS handshake");
        if (r == 0) return false;
        c->handshaking = false;
        if (tls_write(c->tls, pattern, (size_t)o.size) != o.size) fail("TLS write");
    }
    ssize_t n = conn_read(c, rbuf, CHUNK);
    if (n == 0) fail("the server closed a connection before it had echoed");
    if (n > 0) c->rx += (uint64_t)n;
    return c->rx >= (uint64_t)o.size;
}

static void run_churn(void)
{
    struct epoll_event ev[256];
    struct conn *cs = zeroed((size_t)o.conns, sizeof *cs);
    int ep = epoll_create1(EPOLL_CLOEXEC);
    uint64_t ops = 0;
    if (o.resume) churn_first_session();
    for (int i = 0; i < o.conns; i++) {
        cs[i].times = zeroed(1, sizeof *cs[i].times);
        churn_open(ep, &cs[i]);
    }
    progress = now_ns();
    warm_begin();
    for (;;) {
        int n = wait_for_some(ep, ev, 256), at = window_at(now_ns());
        if (at == BEGUN) ops = churn_resumed = 0;
        if (at == OVER) break;
        for (int i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;
            if (!churn_step(c)) continue;
            progress = now_ns();
            hist_add(progress - *c->times, 1);
            ops++;
            churn_close(c);
            churn_open(ep, c);
        }
    }
    if (o.resume && churn_resumed < ops * 9 / 10) fail("sessions were not resumed");
    report((double)ops, "conn");
}

// --- idle ----------------------------------------------------------------------------------------

static struct conn idle_open(void)
{
    struct conn c;
    memset(&c, 0, sizeof c);
    c.fd = tcp_connect();
    if (o.tls) c.tls = tls_connect(c.fd);
    return c;
}

static void idle_echo(struct conn *c)
{
    if (c->tls) {
        if (tls_write(c->tls, pattern, (size_t)o.size) <= 0) fail("TLS write");
        if (tls_read(c->tls, rbuf, CHUNK) <= 0) fail("TLS read");
        return;
    }
    if (send(c->fd, pattern, (size_t)o.size, MSG_NOSIGNAL) != o.size) die("send");
    if (recv(c->fd, rbuf, (size_t)o.size, MSG_WAITALL) != o.size) die("recv");
}

static void run_idle(void)
{
    struct conn *cs = zeroed((size_t)o.conns, sizeof *cs), first = idle_open();
    idle_echo(&first); // so that what the server allocates once is not counted
    usleep(100000);
    long base = server_rss();
    for (int i = 0; i < o.conns; i++) {
        cs[i] = idle_open();
        if (i % 100 == 99) usleep(500); // the backlog is not endless
    }
    usleep(300000);
    long open = server_rss();
    for (int i = 0; i < o.conns; i++) {
        idle_echo(&cs[i]);
    }
    usleep(300000);
    long after = server_rss();
    printf("mode=%s%s conns=%d size=%d unit=B/conn foreign=0 ", o.mode, o.tls ? "-tls" : "",
           o.conns, o.size);
    printf("rss_open=%.1f rss_after=%.1f rss_base=%ld\n", (double)(open - base) / o.conns,
           (double)(after - base) / o.conns, base);
}

// --- udp -----------------------------------------------------------------------------------------

static void run_udp(void)
{
    enum { B = 64 };

    static unsigned char in[B][2048];
    struct sockaddr_in a = server_addr();
    struct mmsghdr m[B];
    struct iovec v[B];
    struct timeval patience = {0, 20000};
    uint64_t ops = 0, lost = 0, t0 = 0;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), batch = o.pipe < B ? o.pipe : B;
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0) die("udp");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (o.size > 2048) fail("datagram too big");
    memset(m, 0, sizeof m);
    for (int i = 0; i < B; i++) {
        m[i].msg_hdr.msg_iov = &v[i];
        m[i].msg_hdr.msg_iovlen = 1;
    }
    warm_begin();
    for (int got = 0;;) {
        int todo = got > 0 ? got : batch; // a new window of datagrams if one was lost
        uint64_t t = now_ns();
        int at = window_at(t);
        if (at == BEGUN) ops = lost = 0;
        if (at == OVER) break;
        if (got <= 0) t0 = t;
        for (int i = 0; i < todo; i++) {
            v[i].iov_base = pattern;
            v[i].iov_len = (size_t)o.size;
        }
        if (sendmmsg(fd, m, (unsigned)todo, 0) < 0 && errno != ECONNREFUSED) die("sendmmsg");
        for (int i = 0; i < batch; i++) {
            v[i].iov_base = in[i];
            v[i].iov_len = sizeof in[i];
        }
        got = recvmmsg(fd, m, (unsigned)batch, MSG_WAITFORONE, NULL);
        if (got < 0) {
            if (++lost > 200) fail("the server does not answer");
            continue;
        }
        ops += (uint64_t)got;
        t = now_ns();
        hist_add(t - t0, (uint32_t)got);
        t0 = t;
    }
    if (lost) fprintf(stderr, "load: %llu windows lost\n", (unsigned long long)lost);
    report((double)ops, "pkt");
}

// --- fan -----------------------------------------------------------------------------------------

static void run_fan(void)
{
    struct epoll_event ev[512];
    struct conn *cs = zeroed((size_t)o.conns, sizeof *cs);
    uint64_t bytes = 0, want = 0, got = 0, t0 = 0;
    int ep = epoll_create1(EPOLL_CLOEXEC);
    char *line = zeroed((size_t)o.size, 1);
    memset(line, 'x', (size_t)o.size);
    line[o.size - 1] = '\n';
    for (int i = 0; i < o.conns; i++) {
        cs[i].fd = tcp_connect();
        nonblock(cs[i].fd);
        watch(ep, EPOLL_CTL_ADD, &cs[i], EPOLLIN);
        if (i % 100 == 99) usleep(2000);
    }
    int publisher = tcp_connect();
    usleep(200000); // a line that comes before a subscriber was accepted does not reach it
    progress = now_ns();
    warm_begin();
    for (;;) {
        if (got >= want) {
            uint64_t t = now_ns();
            if (want) hist_add(t - t0, 1);
            got = 0;
            want = (uint64_t)o.conns * (uint64_t)o.size * (uint64_t)o.pipe;
            int at = window_at(t);
            if (at == BEGUN) bytes = 0;
            if (at == OVER) break;
            t0 = now_ns();
            for (int i = 0; i < o.pipe; i++) {
                if (send(publisher, line, (size_t)o.size, MSG_NOSIGNAL) != o.size) die("publish");
            }
        }
        int n = wait_for_some(ep, ev, 512);
        for (int i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;
            ssize_t r = recv(c->fd, rbuf, 65536, MSG_DONTWAIT);
            if (r == 0) fail("the server closed a connection");
            if (r < 0) continue;
            got += (uint64_t)r;
            bytes += (uint64_t)r;
            progress = now_ns();
        }
    }
    report((double)bytes / o.size, "delivery");
}

// --- main ----------------------------------------------------------------------------------------

static void options(int argc, char **argv)
{
    const struct {
        const char *name;
        int *value;
    } numbers[] = {{"--port", &o.port}, {"--pid", &o.pid},   {"--conns", &o.conns},
                   {"--size", &o.size}, {"--pipe", &o.pipe}, {"--cpu", &o.cpu}};

    if (argc < 2) fail("usage: load MODE --port N --pid PID [options]");
    o.mode = argv[1];
    for (int i = 2; i < argc; i++) {
        const char *key = argv[i];
        size_t n = 0;
        if (!strcmp(key, "--tls")) {
            o.tls = true;
            continue;
        }
        if (!strcmp(key, "--resume")) {
            o.resume = true;
            continue;
        }
        if (++i >= argc) fail("an option lacks its value");
        while (n < sizeof numbers / sizeof numbers[0] && strcmp(key, numbers[n].name) != 0) {
            n++;
        }
        if (n < sizeof numbers / sizeof numbers[0]) {
            *numbers[n].value = atoi(argv[i]);
        } else if (!strcmp(key, "--mine")) {
            o.mine = argv[i];
        } else if (!strcmp(key, "--secs")) {
            o.secs = atof(argv[i]);
        } else if (!strcmp(key, "--warm")) {
            o.warm = atof(argv[i]);
        } else if (!strcmp(key, "--count")) {
            o.count = strtoull(argv[i], NULL, 10);
        } else {
            fail("unknown option");
        }
    }
    if (o.conns < 1 || o.size < 1 || o.pipe < 1) fail("numbers begin with 1");
    if (o.count && o.count < (uint64_t)o.conns * (uint64_t)o.pipe) fail("--count is too small");
}

static void pin_to_core(int core)
{
    cpu_set_t set;
    if (core < 0) return;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    sched_setaffinity(0, sizeof set, &set);
}

int main(int argc, char **argv)
{
    options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    pin_to_core(o.cpu);
    pattern = zeroed(PERIOD + CHUNK, 1);
    rbuf = zeroed(CHUNK, 1);
    for (uint32_t i = 0; i < PERIOD + CHUNK; i++) {
        pattern[i] = (unsigned char)(i % PERIOD * 2654435761u >> 23);
    }
    if (o.tls && !tls_init()) fail("no TLS in this build");

    if (!strcmp(o.mode, "echo")) {
        run_echo();
    } else if (!strcmp(o.mode, "sink") || !strcmp(o.mode, "source")) {
        run_bulk(!strcmp(o.mode, "sink"));
    } else if (!strcmp(o.mode, "churn")) {
        run_churn();
    } else if (!strcmp(o.mode, "idle")) {
        run_idle();
    } else if (!strcmp(o.mode, "udp")) {
        run_udp();
    } else if (!strcmp(o.mode, "fan")) {
        run_fan();
    } else {
        fail("unknown mode");
    }
    return 0;
}
