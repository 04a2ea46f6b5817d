// socket_cost.c: what the calls for many datagrams and for files cost next to the system calls
// behind them, without a load generator.
//
//   socket_cost echo       one step of a UDP echo server: wait, receive, send back what came
//   socket_cost segments   sending and receiving 1,200-byte datagrams in bulk, with GSO and GRO
//   socket_cost sendfile   a gibibyte of a file over TCP, next to read and send
//   socket_cost step KIND IN_FLIGHT ROUNDS    the step alone, for strace and callgrind
//
// echo and segments are one thread that is both sides: on the loopback a datagram lies in the
// receiver's queue when the call that sent it returns, so only the measured side is timed, every
// round does exactly the same, and rounds of one kind and another lie microseconds apart. Behind a
// ratio stands what it is the median of: the ratios within each round.
//
// --quick measures for a tenth of the time; --other N is the core of sendfile's receiving process.
#define _GNU_SOURCE
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { BATCH = 64, ROOM = 2048, BIG = 65536, KINDS = 5, ROUNDS = 20000 };

static bool quick;
static int other_core = 1;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void must(const char *what, ptrdiff_t err)
{
    if (err >= 0) return;
    fprintf(stderr, "socket_cost: %s: %s\n", what, netio_strerror(err));
    exit(1);
}

static void fail(const char *what)
{
    fprintf(stderr, "socket_cost: %s\n", what);
    exit(1);
}

static double clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

// --- medians of what was measured round by round -------------------------------------------------

static double found[KINDS][ROUNDS];

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The ratios to `base` in the order of size; base -1: the values themselves.
static const double *ratios(int kind, int base, int rounds)
{
    static double sorted[ROUNDS];
    for (int i = 0; i < rounds; i++) {
        sorted[i] = found[kind][i] / (base < 0 ? 1 : found[base][i]);
    }
    qsort(sorted, (size_t)rounds, sizeof sorted[0], by_size);
    return sorted;
}

static double median_ratio(int kind, int base, int rounds)
{
    return ratios(kind, base, rounds)[rounds / 2];
}

// With the range that holds the true median in 95 of 100 cases: 0.98 roots of n to either side.
static void print_ratio(int kind, int base, int rounds)
{
    const double *sorted = ratios(kind, base, rounds);
    int half = 1;
    while (half * half < rounds && 2 * half < rounds) {
        half++;
    }
    int low = rounds / 2 - half, high = rounds / 2 + half;
    printf("| %.3f (%.3f-%.3f) ", sorted[rounds / 2], sorted[low < 0 ? 0 : low],
           sorted[high < rounds ? high : rounds - 1]);
}

// The kinds in an order that is another in each round: what one leaves in the caches meets all.
static const int *shuffled(int kinds)
{
    static uint64_t x = 88172645463325252u;
    static int order[KINDS];
    for (int i = 0; i < kinds; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        int k = (int)(x % (unsigned)(i + 1));
        order[i] = order[k];
        order[k] = i;
    }
    return order;
}

// --- datagram sockets ----------------------------------------------------------------------------

static char pattern[BIG];

static void set(int fd, int level, int option, int value)
{
    if (setsockopt(fd, level, option, &value, sizeof value) < 0) die("setsockopt");
}

static int open_bound(struct sockaddr_in *a)
{
    socklen_t len = sizeof *a;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)a, sizeof *a) < 0) die("bind");
    if (getsockname(fd, (struct sockaddr *)a, &len) < 0) die("getsockname");
    return fd;
}

// --- echo ----------------------------------------------------------------------------------------

typedef struct server {
    int fd, ep;
    netio_poller *poller;
    int client; // connected to fd; uses write and read, which nothing else here does
} server;

static struct mmsghdr headers[BATCH];
static struct iovec vectors[BATCH];
static struct sockaddr_in senders[BATCH];
static char rooms[BATCH][ROOM];
static netio_datagram datagrams[BATCH];

static void step_single(server *v)
{
    struct epoll_event e;
    struct sockaddr *peer = (struct sockaddr *)&senders[0];
    epoll_wait(v->ep, &e, 1, -1);
    for (int i = 0; i < BATCH; i++) {
        socklen_t peer_len = sizeof senders[0];
        ssize_t n = recvfrom(v->fd, rooms[0], ROOM, 0, peer, &peer_len);
        if (n < 0) break;
        sendto(v->fd, rooms[0], (size_t)n, 0, peer, peer_len);
    }
}

static void step_mmsg(server *v)
{
    struct epoll_event e;
    epoll_wait(v->ep, &e, 1, -1);
    for (int i = 0; i < BATCH; i++) {
        vectors[i].iov_len = ROOM;
        headers[i].msg_hdr.msg_namelen = sizeof senders[i];
    }
    int n = recvmmsg(v->fd, headers, BATCH, MSG_WAITFORONE, NULL);
    for (int i = 0; i < n; i++) {
        vectors[i].iov_len = headers[i].msg_len;
    }
    if (n > 0) sendmmsg(v->fd, headers, (unsigned)n, 0);
}

static void step_netio_single(server *v)
{
    netio_event e;
    netio_addr from;
    netio_poller_wait(v->poller, &e, 1, -1);
    for (int i = 0; i < BATCH; i++) {
        ptrdiff_t n = netio_recvfrom(v->fd, rooms[0], ROOM, &from, 0);
        if (n < 0) break;
        netio_sendto(v->fd, rooms[0], (size_t)n, &from, 0);
    }
}

static void step_netio_batch(server *v)
{
    netio_event e;
    netio_poller_wait(v->poller, &e, 1, -1);
    ptrdiff_t n = netio_recv_batch(v->fd, datagrams, BATCH, 0);
    if (n > 0) netio_send_batch(v->fd, datagrams, (size_t)n, 0);
}

static const struct {
    const char *word, *name;
    void (*step)(server *);
    bool netio;
} kinds[KINDS] = {
    {"single", "recvfrom, sendto", step_single, false},
    {"mmsg", "recvmmsg, sendmmsg", step_mmsg, false},
    {"netio-single", "netio_recvfrom, _sendto", step_netio_single, true},
    {"netio-batch", "netio_recv_batch, _send_batch", step_netio_batch, true},
    {"mmsg-again", "recvmmsg, sendmmsg again", step_mmsg, false},
};

static void open_server(server *v, int kind)
{
    struct sockaddr_in a;
    struct epoll_event e = {.events = EPOLLIN};
    v->fd = open_bound(&a);
    v->client = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (v->client < 0 || connect(v->client, (struct sockaddr *)&a, sizeof a) < 0) die("client");
    if (kinds[kind].netio) {
        must("poller", netio_poller_open(&v->poller, NETIO_BACKEND_EPOLL));
        must("add", netio_poller_add(v->poller, v->fd, NETIO_EV_READ, NULL));
    } else {
        v->ep = epoll_create1(EPOLL_CLOEXEC);
        if (epoll_ctl(v->ep, EPOLL_CTL_ADD, v->fd, &e) < 0) die("epoll_ctl");
    }
}

static void prepare_rooms(void)
{
    for (int i = 0; i < BATCH; i++) {
        vectors[i].iov_base = rooms[i];
        headers[i].msg_hdr.msg_iov = &vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
        headers[i].msg_hdr.msg_name = &senders[i];
        datagrams[i].data = rooms[i];
        datagrams[i].cap = ROOM;
    }
}

// Nanoseconds of one step with `in_flight` datagrams of 64 bytes.
static double round_of(server *v, int kind, int in_flight)
{
    char back[ROOM];
    for (int i = 0; i < in_flight; i++) {
        pattern[0] = (char)i; // so that answers that are lost or doubled are seen
        if (write(v->client, pattern, 64) != 64) die("write");
    }
    double t0 = clock_ns(CLOCK_MONOTONIC);
    kinds[kind].step(v);
    double t1 = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < in_flight; i++) {
        if (read(v->client, back, sizeof back) != 64 || back[0] != (char)i ||
            memcmp(back + 1, pattern + 1, 63) != 0) {
            fail("a wrong answer");
        }
    }
    return t1 - t0;
}

static void cost_of_echo(void)
{
    static const int flights[] = {1, 8, 32, 64};
    server v[KINDS] = {{0}};
    prepare_rooms();
    for (int k = 0; k < KINDS; k++) {
        open_server(&v[k], k);
    }
    printf("| in flight | calls | ns/datagram | to recvfrom, sendto | to recvmmsg, sendmmsg |\n"
           "|---|---|---|---|---|\n");
    for (int f = 0; f < 4; f++) {
        int rounds = (quick ? 2000 : 40000) / (flights[f] + 1);
        for (int r = -rounds / 10; r < rounds; r++) {
            const int *order = shuffled(KINDS);
            for (int k = 0; k < KINDS; k++) {
                int kind = order[k];
                double ns = round_of(&v[kind], kind, flights[f]);
                if (r >= 0) found[kind][r] = ns;
            }
        }
        for (int k = 0; k < KINDS; k++) {
            printf("| %d | %s | %.0f | %.3f | %.3f |\n", flights[f], kinds[k].name,
                   median_ratio(k, -1, rounds) / flights[f], median_ratio(k, 0, rounds),
                   median_ratio(k, 1, rounds));
        }
        fflush(stdout);
    }
}

// For strace (the client's calls are write and read, all others the server's) and for callgrind
// with --toggle-collect=step_*.
static void steps_alone(const char *name, int in_flight, int rounds)
{
    server v = {0};
    int kind = 0;
    while (kind < KINDS && strcmp(kinds[kind].word, name) != 0) {
        kind++;
    }
    if (kind == KINDS || in_flight < 1 || in_flight > BATCH) fail("step: what?");
    prepare_rooms();
    open_server(&v, kind);
    for (int r = 0; r < rounds; r++) {
        round_of(&v, kind, in_flight);
    }
}

// --- segments ------------------------------------------------------------------------------------

enum { SEGMENT = 1200, RUN = 54 }; // 54 of them are what one datagram of IPv4 has room for

typedef struct bulk {
    int fd, sink;
    struct sockaddr_in to;
    netio_addr peer;
} bulk;

static char bulk_room[BATCH][BIG];
static uint64_t control[8];

static void bulk_mmsg(bulk *b)
{
    for (int i = 0; i < RUN; i++) {
        vectors[i].iov_base = pattern + i * SEGMENT;
        vectors[i].iov_len = SEGMENT;
        headers[i].msg_hdr.msg_name = &b->to;
        headers[i].msg_hdr.msg_namelen = sizeof b->to;
        headers[i].msg_hdr.msg_iov = &vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    if (sendmmsg(b->fd, headers, RUN, 0) != RUN) die("sendmmsg");
}

static void bulk_netio(bulk *b)
{
    for (int i = 0; i < RUN; i++) {
        datagrams[i].data = pattern + i * SEGMENT;
        datagrams[i].len = SEGMENT;
        datagrams[i].peer = b->peer;
        datagrams[i].segment = 0;
    }
    if (netio_send_batch(b->fd, datagrams, RUN, 0) != RUN) fail("netio_send_batch");
}

static void bulk_mmsg_segment(bulk *b)
{
    uint16_t size = SEGMENT;
    struct msghdr *h = &headers[0].msg_hdr;
    vectors[0].iov_base = pattern;
    vectors[0].iov_len = RUN * SEGMENT;
    h->msg_name = &b->to;
    h->msg_namelen = sizeof b->to;
    h->msg_iov = &vectors[0];
    h->msg_iovlen = 1;
    h->msg_control = control;
    h->msg_controllen = CMSG_SPACE(sizeof size);
    struct cmsghdr *c = CMSG_FIRSTHDR(h);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(c), &size, sizeof size);
    int n = sendmmsg(b->fd, headers, 1, 0);
    h->msg_control = NULL;
    h->msg_controllen = 0;
    if (n != 1) die("sendmmsg with UDP_SEGMENT");
}

static void bulk_netio_segment(bulk *b)
{
    datagrams[0].data = pattern;
    datagrams[0].len = RUN * SEGMENT;
    datagrams[0].peer = b->peer;
    datagrams[0].segment = SEGMENT;
    if (netio_send_batch(b->fd, datagrams, 1, 0) != 1) fail("netio_send_batch with segments");
}

enum { BULKS = 4 };

static void (*const bulks[BULKS])(bulk *) = {bulk_mmsg, bulk_netio, bulk_mmsg_segment,
                                             bulk_netio_segment};
static const char *const bulk_names[] = {"sendmmsg", "netio_send_batch", "sendmmsg, UDP_SEGMENT",
                                         "netio_send_batch, segment"};

// Receives what lies in the queue; how many datagrams they were.
static int drain_mmsg(bulk *b)
{
    int count = 0, n;
    do {
        for (int i = 0; i < BATCH; i++) {
            vectors[i].iov_base = bulk_room[i];
            vectors[i].iov_len = ROOM;
            headers[i].msg_hdr.msg_name = &senders[i];
            headers[i].msg_hdr.msg_namelen = sizeof senders[i];
            headers[i].msg_hdr.msg_iov = &vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
        n = recvmmsg(b->sink, headers, BATCH, MSG_DONTWAIT, NULL);
        if (n > 0) count += n;
    } while (n == BATCH);
    return count;
}

static int drain_netio(bulk *b, size_t batch, size_t cap)
{
    int count = 0;
    ptrdiff_t n;
    do {
        for (size_t i = 0; i < batch; i++) {
            datagrams[i].data = bulk_room[i];
            datagrams[i].cap = cap;
        }
        n = netio_recv_batch(b->sink, datagrams, batch, 0);
        for (ptrdiff_t i = 0; i < n; i++) {
            size_t segment = datagrams[i].segment, len = datagrams[i].len;
            count += segment ? (int)((len + segment - 1) / segment) : 1;
        }
    } while (n == (ptrdiff_t)batch);
    return count;
}

static void open_bulk(bulk *b, bool gro)
{
    struct sockaddr_in mine;
    char text[32];
    b->sink = open_bound(&b->to);
    b->fd = open_bound(&mine);
    set(b->sink, SOL_SOCKET, SO_RCVBUF, 1 << 20); // as far as the system lets us
    if (gro) set(b->sink, IPPROTO_UDP, UDP_GRO, 1);
    snprintf(text, sizeof text, "127.0.0.1:%d", ntohs(b->to.sin_port));
    must("address", netio_addr_parse(&b->peer, text, strlen(text)));
}

static void cost_of_sending(bool gro)
{
    bulk b;
    int rounds = quick ? 100 : 2000;
    open_bulk(&b, gro);
    for (int r = -rounds / 10; r < rounds; r++) {
        const int *order = shuffled(BULKS);
        for (int k = 0; k < BULKS; k++) {
            int kind = order[k];
            double t0 = clock_ns(CLOCK_MONOTONIC);
            bulks[kind](&b);
            double t1 = clock_ns(CLOCK_MONOTONIC);
            if (r >= 0) found[kind][r] = t1 - t0;
            if (drain_netio(&b, BATCH, BIG) != RUN) fail("datagrams were lost");
        }
    }
    for (int k = 0; k < BULKS; k++) {
        printf("| send, to a receiver %s | %s | %.0f | %.3f |\n", gro ? "with GRO" : "without GRO",
               bulk_names[k], median_ratio(k, -1, rounds) / RUN, median_ratio(k, 0, rounds));
    }
    fflush(stdout);
    close(b.fd);
    close(b.sink);
}

// Everything is sent with segments: the kernel keeps them together for a receiver that wants them
// so, and cuts them for another one before they reach its queue.
static void cost_of_receiving(void)
{
    static const char *const names[] = {"recvmmsg", "netio_recv_batch",
                                        "netio_recv_batch, RECV_SEGMENTS"};
    bulk plain, gro;
    int rounds = quick ? 100 : 2000;
    open_bulk(&plain, false);
    open_bulk(&gro, true);
    for (int r = -rounds / 10; r < rounds; r++) {
        const int *order = shuffled(3);
        for (int k = 0; k < 3; k++) {
            int kind = order[k];
            bulk_netio_segment(kind == 2 ? &gro : &plain);
            double t0 = clock_ns(CLOCK_MONOTONIC);
            int n = kind == 0   ? drain_mmsg(&plain)
                    : kind == 1 ? drain_netio(&plain, BATCH, ROOM)
                                : drain_netio(&gro, 4, BIG);
            double t1 = clock_ns(CLOCK_MONOTONIC);
            if (n != RUN) fail("datagrams were lost");
            if (r >= 0) found[kind][r] = t1 - t0;
        }
    }
    for (int k = 0; k < 3; k++) {
        printf("| receive | %s | %.0f | %.3f |\n", names[k], median_ratio(k, -1, rounds) / RUN,
               median_ratio(k, 0, rounds));
    }
}

static void cost_of_segments(void)
{
    printf("| what | calls | ns/datagram | ratio |\n|---|---|---|---|\n");
    cost_of_sending(false);
    cost_of_sending(true);
    cost_of_receiving();
}

// --- sendfile ------------------------------------------------------------------------------------

enum { CHUNK = 16 << 20, CHUNKS = 64, WAYS = 4 };

// The other end answers a byte after each CHUNK, until the connection ends. It drops what comes
// without copying it (MSG_TRUNC), and never sleeps: on the loopback the sender would else pay for
// waking it, and share the memory's bandwidth with it.
static void sink_process(int listener)
{
    size_t got = 0;
    ssize_t n = -1;
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET((size_t)other_core, &cores);
    sched_setaffinity(0, sizeof cores, &cores);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fcntl(listener, F_SETFL, 0); // netio's listener does not block, accept here is to
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) die("accept");
    while (n != 0) {
        n = recv(fd, NULL, 1 << 20, MSG_TRUNC | MSG_DONTWAIT);
        if (n <= 0) continue;
        got += (size_t)n;
        if (got % CHUNK == 0 && send(fd, "", 1, 0) != 1) die("answer");
    }
    _exit(0);
}

// After a send that would have had to wait, or that failed.
static void wait_for_room(int fd, const char *what)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (errno != EAGAIN) die(what);
    if (poll(&p, 1, -1) != 1) die("poll");
}

static void file_by_copy(int fd, int file, off_t off, size_t piece)
{
    static char buf[64 << 10];
    lseek(file, off, SEEK_SET);
    for (size_t sent = 0; sent < CHUNK;) {
        ssize_t n = read(file, buf, piece);
        if (n <= 0) die("read");
        for (ssize_t at = 0; at < n;) {
            ssize_t r = send(fd, buf + at, (size_t)(n - at), MSG_NOSIGNAL);
            if (r < 0) {
                wait_for_room(fd, "send");
            } else {
                at += r;
            }
        }
        sent += (size_t)n;
    }
}

static void file_by_copy16(int fd, int file, off_t off) { file_by_copy(fd, file, off, 16 << 10); }

static void file_by_copy64(int fd, int file, off_t off) { file_by_copy(fd, file, off, 64 << 10); }

static void file_by_sendfile(int fd, int file, off_t off)
{
    off_t end = off + CHUNK;
    while (off < end) {
        ssize_t r = sendfile(fd, file, &off, (size_t)(end - off));
        if (r == 0) fail("sendfile: the file is shorter");
        if (r < 0) wait_for_room(fd, "sendfile");
    }
}

static void file_by_netio(int fd, int file, off_t off)
{
    must("netio_sendfile", netio_sendfile(fd, file, (uint64_t)off, CHUNK, NULL, -1));
}

static int make_file(size_t size)
{
    FILE *f = tmpfile();
    if (!f) die("tmpfile");
    for (size_t at = 0; at < size; at += sizeof pattern) {
        if (fwrite(pattern, 1, sizeof pattern, f) != sizeof pattern) die("fwrite");
    }
    if (fflush(f) != 0) die("fflush");
    return fileno(f);
}

static void cost_of_sendfile(void)
{
    static void (*const ways[WAYS])(int, int, off_t) = {file_by_copy16, file_by_copy64,
                                                        file_by_sendfile, file_by_netio};
    static const char *const names[WAYS] = {"read, send, 16 KiB at a time",
                                            "read, send, 64 KiB at a time", "sendfile",
                                            "netio_sendfile"};
    netio_socket listener, s;
    netio_addr local;
    char text[NETIO_ADDR_TEXT];
    int chunks = quick ? 4 : CHUNKS, rounds = quick ? 4 : 3 * CHUNKS;
    int file = make_file((size_t)chunks * CHUNK);
    must("listen", netio_listen(&listener, "127.0.0.1:0", NULL));
    must("address", netio_local_addr(listener, &local));
    must("address", netio_addr_format(&local, text, sizeof text));
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) sink_process(listener);
    // One connection for all: no two are alike.
    must("connect", netio_connect(&s, text, NULL, 5000));
    for (int r = -2; r < rounds; r++) {
        const int *order = shuffled(WAYS);
        for (int k = 0; k < WAYS; k++) {
            char answer;
            // Everybody sends the same parts of the file, but not one after the other: what the
            // processor's cache holds of a part is nobody's advantage.
            int kind = order[k];
            off_t off = (off_t)((r + 2 + chunks / WAYS * kind) % chunks) * CHUNK;
            double t0 = clock_ns(CLOCK_THREAD_CPUTIME_ID);
            ways[kind](s, file, off);
            double t1 = clock_ns(CLOCK_THREAD_CPUTIME_ID);
            must("answer", netio_recv(s, &answer, 1, 20000));
            if (r >= 0) found[kind][r] = t1 - t0;
        }
    }
    netio_close(&s);
    waitpid(child, NULL, 0);
    printf("| calls | CPU ms/GiB | to 16 KiB (95 %%) | to 64 KiB (95 %%) | to sendfile (95 %%) |\n"
           "|---|---|---|---|---|\n");
    for (int k = 0; k < WAYS; k++) {
        printf("| %s | %.0f ", names[k], median_ratio(k, -1, rounds) * ((1 << 30) / CHUNK) / 1e6);
        for (int base = 0; base < 3; base++) {
            print_ratio(k, base, rounds);
        }
        printf("|\n");
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof pattern; i++) {
        pattern[i] = (char)(i % 251);
    }
    if (strcmp(what, "step") == 0 && argc == 5) {
        steps_alone(argv[2], atoi(argv[3]), atoi(argv[4]));
        return 0;
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) quick = true;
        if (strcmp(argv[i], "--other") == 0 && i + 1 < argc) other_core = atoi(argv[++i]);
    }
    if (strcmp(what, "echo") == 0) {
        cost_of_echo();
    } else if (strcmp(what, "segments") == 0) {
        cost_of_segments();
    } else if (strcmp(what, "sendfile") == 0) {
        cost_of_sendfile();
    } else {
        fprintf(stderr, "usage: socket_cost echo|segments|sendfile [--quick] [--other CORE]\n"
                        "       socket_cost step single|mmsg|netio-single|netio-batch"
                        " IN_FLIGHT ROUNDS\n");
        return 2;
    }
    return 0;
}
