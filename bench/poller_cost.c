// poller_cost.c: what a poller costs by itself, without a server or a network around it.
//
//   poller_cost wait     time of one wait as more sockets are watched, next to the bare system call
//   poller_cost change   time of add, modify and remove with few and with many registrations
//   poller_cost memory   bytes that the poller holds for each registration
//
// --quick measures for a tenth of the time. Times are the least of many batches: what disturbs one
// only ever makes it longer. Linux only, because of the bare calls.
#define _GNU_SOURCE
#include <stddef.h>
#include <stdlib.h>

// Every block carries its size in front, so that the bytes in use are known at any time.
static size_t held;

static void *counted_realloc(void *p, size_t size)
{
    size_t *old = p ? (size_t *)p - 2 : NULL, before = old ? *old : 0;
    size_t *block = (size_t *)realloc(old, size + 2 * sizeof *block);
    if (!block) return NULL;
    held += size - before;
    *block = size;
    return block + 2;
}

static void *counted_malloc(size_t size) { return counted_realloc(NULL, size); }

static void counted_free(void *p)
{
    if (!p) return;
    held -= ((size_t *)p)[-2];
    free((size_t *)p - 2);
}

#define NETIO_MALLOC(size) counted_malloc(size)
#define NETIO_REALLOC(ptr, size) counted_realloc(ptr, size)
#define NETIO_FREE(ptr) counted_free(ptr)
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 20000, SPARE = 50 };

static int fds[MAX_FDS]; // idle sockets, ascending
static int fd_count;
static bool quick;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void must(const char *what, ptrdiff_t err)
{
    if (err >= 0) return;
    fprintf(stderr, "poller_cost: %s: %s\n", what, netio_strerror(err));
    exit(1);
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int descriptor_limit(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) < 0) die("getrlimit");
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    return rl.rlim_max < 1000000 ? (int)rl.rlim_max : 1000000;
}

// At least `want` idle sockets, or as many as the limit allows: how many there are.
static int idle_sockets(int want)
{
    int limit = descriptor_limit() - SPARE;
    if (want > limit) want = limit;
    if (want > MAX_FDS) want = MAX_FDS;
    while (fd_count < want) {
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); // unbound: never readable
        if (fd < 0) die("socket");
        fds[fd_count++] = fd;
    }
    return want;
}

static const int backends[] = {NETIO_BACKEND_SELECT, NETIO_BACKEND_POLL, NETIO_BACKEND_EPOLL};

enum { BACKENDS = sizeof backends / sizeof backends[0] };

static netio_poller *open_poller(int backend)
{
    netio_poller *p;
    must(netio_backend_name(backend), netio_poller_open(&p, backend));
    return p;
}

static void add_idle(netio_poller *p, int from, int to)
{
    for (int i = from; i < to; i++) {
        must("add", netio_poller_add(p, fds[i], NETIO_EV_READ, &fds[i]));
    }
}

// --- wait ----------------------------------------------------------------------------------------

// The bare call on the same sockets. select() overwrites its set, so that everybody has to fill it
// again: that copy belongs to the call.
static struct {
    unsigned long set[1024 * 1024 / 64], work[1024 * 1024 / 64];
    struct pollfd polled[MAX_FDS + 1];
    struct epoll_event events[512];
    int count, top, ep;
} bare;

static void bare_prepare(int backend, int count, int active)
{
    size_t bits = 8 * sizeof bare.set[0];
    if (bare.ep > 0) close(bare.ep);
    memset(bare.set, 0, sizeof bare.set);
    bare.ep = epoll_create1(EPOLL_CLOEXEC);
    bare.count = count + 1;
    bare.top = 0;
    for (int i = 0; i <= count; i++) {
        int fd = i < count ? fds[i] : active;
        struct epoll_event e = {.events = EPOLLIN, .data = {.fd = fd}};
        if (fd > bare.top) bare.top = fd;
        bare.set[(size_t)fd / bits] |= 1ul << (size_t)fd % bits;
        bare.polled[i].fd = fd;
        bare.polled[i].events = POLLIN;
        if (backend != NETIO_BACKEND_EPOLL) continue; // nothing else watches these sockets
        if (epoll_ctl(bare.ep, EPOLL_CTL_ADD, fd, &e) < 0) die("epoll_ctl");
    }
}

static void bare_wait(int backend)
{
    int n;
    if (backend == NETIO_BACKEND_SELECT) {
        memcpy(bare.work, bare.set, (size_t)bare.top / 8 + sizeof bare.set[0]);
        n = select(bare.top + 1, (fd_set *)(void *)bare.work, NULL, NULL, NULL);
    } else if (backend == NETIO_BACKEND_POLL) {
        n = poll(bare.polled, (nfds_t)bare.count, -1);
    } else {
        n = epoll_wait(bare.ep, bare.events, 512, -1);
    }
    if (n != 1) die("bare wait");
}

static void netio_wait_once(netio_poller *p, int active)
{
    static netio_event events[512];
    ptrdiff_t n = netio_poller_wait(p, events, 512, -1);
    must("wait", n);
    if (n != 1 || events[0].socket != active) must("wait: wrong event", NETIO_EIO);
}

static double batch(int backend, netio_poller *p, int active, int times)
{
    double t0 = now_ns();
    for (int i = 0; i < times; i++) {
        if (p) {
            netio_wait_once(p, active);
        } else {
            bare_wait(backend);
        }
    }
    return (now_ns() - t0) / times;
}

static void cost_of_wait(void)
{
    static const int watched[] = {10, 100, 1000, 4000};

    enum { SIZES = sizeof watched / sizeof watched[0] };

    char byte = 0;
    int pair[2];
    idle_sockets(watched[SIZES - 1]);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || write(pair[1], &byte, 1) != 1) die("pair");

    printf("| backend | idle sockets watched | bare call, ns | netio, ns | more, ns | ratio |\n");
    printf("|---|---|---|---|---|---|\n");
    for (int b = 0; b < BACKENDS; b++) {
        double first[2] = {0}, last[2] = {0};
        int from = 0, to = 0;
        for (int k = 0; k < SIZES && watched[k] <= fd_count; k++) {
            double least[2] = {1e18, 1e18};
            netio_poller *p = open_poller(backends[b]);
            add_idle(p, 0, watched[k]);
            must("add", netio_poller_add(p, pair[0], NETIO_EV_READ, NULL));
            bare_prepare(backends[b], watched[k], pair[0]);
            int times =
                1 + (int)(1e6 / batch(backends[b], NULL, pair[0], 3)); // about a millisecond
            for (int round = 0; round < (quick ? 5 : 100); round++) {
                double t[2];
                t[0] = batch(backends[b], NULL, pair[0], times);
                t[1] = batch(backends[b], p, pair[0], times);
                for (int i = 0; i < 2; i++) {
                    if (t[i] < least[i]) least[i] = t[i];
                }
            }
            netio_poller_close(p);
            printf("| %s | %d | %.0f | %.0f | %.0f | %.3f |\n", netio_backend_name(backends[b]),
                   watched[k], least[0], least[1], least[1] - least[0], least[1] / least[0]);
            fflush(stdout);
            if (!to) memcpy(first, least, sizeof first);
            if (!to) from = watched[k];
            memcpy(last, least, sizeof last);
            to = watched[k];
        }
        printf("| %s | each further | %.2f | %.2f | %.2f | |\n", netio_backend_name(backends[b]),
               (last[0] - first[0]) / (to - from), (last[1] - first[1]) / (to - from),
               (last[1] - first[1] - last[0] + first[0]) / (to - from));
    }
}

// --- change --------------------------------------------------------------------------------------

static void shuffle(int *order, int count)
{
    static unsigned long long x = 88172645463325252ull;
    for (int i = count - 1; i > 0; i--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        int k = (int)(x % (unsigned)(i + 1)), swap = order[i];
        order[i] = order[k];
        order[k] = swap;
    }
}

static void keep_least(double *least, double t0, double t1, int ops)
{
    double ns = (t1 - t0) / ops;
    if (ns < *least) *least = ns;
}

enum { ADD = EPOLL_CTL_ADD, MODIFY = EPOLL_CTL_MOD, REMOVE = EPOLL_CTL_DEL };

// One change of one registration: of a poller, or without one of a bare epoll.
static void change(netio_poller *p, int ep, int op, int fd, unsigned events)
{
    struct epoll_event e = {.events = EPOLLIN, .data = {.fd = fd}};
    if (op == ADD && p) must("add", netio_poller_add(p, fd, events, NULL));
    if (op == MODIFY && p) must("modify", netio_poller_modify(p, fd, events, NULL));
    if (op == REMOVE && p) must("remove", netio_poller_remove(p, fd));
    if (p) return;
    if (events & NETIO_EV_WRITE) e.events |= EPOLLOUT;
    if (epoll_ctl(ep, op, fd, &e) < 0) die("epoll_ctl");
}

static void change_row(const char *name, netio_poller *p, int count)
{
    static int order[MAX_FDS];
    double add = 1e18, modify = 1e18, remove = 1e18, top = 1e18;
    int some = count / 2 < 500 ? count / 2 : 500, highest = fds[count - 1];
    int ep = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++) {
        order[i] = fds[i];
        change(p, ep, ADD, fds[i], NETIO_EV_READ);
    }
    for (int round = 0; round < (quick ? 5 : 100); round++) {
        shuffle(order, count);
        double t0 = now_ns();
        for (int i = 0; i < some; i++) {
            change(p, ep, REMOVE, order[i], 0);
        }
        double t1 = now_ns();
        for (int i = 0; i < some; i++) {
            change(p, ep, ADD, order[i], NETIO_EV_READ);
        }
        double t2 = now_ns();
        for (int i = 0; i < some; i++) {
            change(p, ep, MODIFY, order[i], NETIO_EV_READ | NETIO_EV_WRITE);
        }
        double t3 = now_ns();
        for (int i = 0; i < some; i++) { // the highest descriptor may be a special case
            change(p, ep, REMOVE, highest, 0);
            change(p, ep, ADD, highest, NETIO_EV_READ);
        }
        double t4 = now_ns();
        keep_least(&remove, t0, t1, some);
        keep_least(&add, t1, t2, some);
        keep_least(&modify, t2, t3, some);
        keep_least(&top, t3, t4, some);
    }
    close(ep);
    printf("| %s | %d | %.0f | %.0f | %.0f | %.0f |\n", name, count, add, modify, remove, top);
    fflush(stdout);
}

// One registration far above the others: a backend that looks for the next lower one would walk.
static void far_row(int backend, int high)
{
    double far = 1e18;
    int times = quick ? 50 : 1000;
    netio_poller *p = open_poller(backend);
    add_idle(p, 0, 100);
    for (int round = 0; round < 20; round++) {
        double t0 = now_ns();
        for (int i = 0; i < times; i++) {
            must("add", netio_poller_add(p, high, NETIO_EV_READ, NULL));
            must("remove", netio_poller_remove(p, high));
        }
        keep_least(&far, t0, now_ns(), times);
    }
    netio_poller_close(p);
    printf("| %s | 100, and one at descriptor %d | | | | %.0f |\n", netio_backend_name(backend),
           high, far);
}

static void cost_of_change(void)
{
    int many = idle_sockets(20000), high = fds[many - 1];
    printf("| backend | registrations | add, ns | modify, ns | remove, ns "
           "| remove and add the highest, ns |\n|---|---|---|---|---|---|\n");
    for (int b = 0; b < BACKENDS; b++) {
        const int counts[] = {100, many};
        for (int i = 0; i < 2; i++) {
            netio_poller *p = open_poller(backends[b]);
            change_row(netio_backend_name(backends[b]), p, counts[i]);
            netio_poller_close(p);
        }
        far_row(backends[b], high);
    }
    change_row("bare epoll_ctl", NULL, 100);
    change_row("bare epoll_ctl", NULL, many);
}

// --- memory --------------------------------------------------------------------------------------

static void memory_row(int backend, int count)
{
    double worst = 0;
    int worst_at = 0;
    size_t before = held;
    netio_poller *p = open_poller(backend);
    size_t empty = held;
    for (int i = 0; i < count; i++) {
        add_idle(p, i, i + 1);
        // Arrays grow by steps: just after one they are emptiest. The first few tell nothing.
        double each = (double)(held - empty) / (i + 1);
        if (i >= 64 && each > worst) {
            worst = each;
            worst_at = i + 1;
        }
    }
    size_t full = held;
    for (int i = 0; i < count; i++) {
        must("remove", netio_poller_remove(p, fds[i]));
    }
    size_t removed = held;
    netio_poller_close(p);
    size_t leaked = held - before;

    p = open_poller(backend);
    add_idle(p, count - 1, count);
    size_t lone = held - empty + before;
    netio_poller_close(p);
    printf("| %s | %zu | %d | %.1f | %.1f, at %d | %zu | %zu | %zu |\n",
           netio_backend_name(backend), empty - before, count, (double)(full - empty) / count,
           worst, worst_at, removed - empty, lone, leaked);
}

static void cost_in_memory(void)
{
    int count = idle_sockets(10000);
    printf("| backend | empty, B | registrations | B each | worst B each above 64 "
           "| after removing all, B | one, at the highest descriptor, B | after close, B |\n"
           "|---|---|---|---|---|---|---|---|\n");
    for (int b = 0; b < BACKENDS; b++) {
        memory_row(backends[b], count);
    }
}

int main(int argc, char **argv)
{
    quick = argc > 2 && strcmp(argv[2], "--quick") == 0;
    if (argc > 1 && strcmp(argv[1], "wait") == 0) {
        cost_of_wait();
    } else if (argc > 1 && strcmp(argv[1], "change") == 0) {
        cost_of_change();
    } else if (argc > 1 && strcmp(argv[1], "memory") == 0) {
        cost_in_memory();
    } else {
        fprintf(stderr, "usage: poller_cost wait|change|memory [--quick]\n");
        return 2;
    }
    return 0;
}
