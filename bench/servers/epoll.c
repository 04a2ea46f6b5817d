// epoll.c: the limit of the readiness model, written by hand. Level-triggered, one read a wakeup
// into one shared buffer, the answer written at once; EPOLLOUT only while a write is owed, and then
// no reading. The flags switch on what libraries often do instead, so that each habit has a price:
//
//   --et          edge-triggered: read until it comes back short, never epoll_ctl again
//   --drain       level-triggered, but read again until EAGAIN
//   --arm         never try the write: copy it, ask for EPOLLOUT, write when told, stop asking
//   --queue       copy to a queue on the heap, written at the end of the turn
//   --one         one event for each epoll_wait
//   --permsg N    the application answers every N bytes with a write() of its own, no gathering
//   --gather N    the same calls, but gathered into one write at the end of the turn
//   --clock       a clock_gettime for each event
//   --timer       an idle timer for each connection in a binary heap, reset on every message
//   --rbuf N      size of the read buffer; one below 256 KiB leaves part of a large burst behind
//   --spin N      poll without waiting for up to N microseconds before sleeping
#include "common.h"
#include <sys/epoll.h>
#include <time.h>

struct conn {
    char *out;
    uint32_t len, off;
    uint8_t armed; // EPOLLOUT is on
    uint8_t ready; // in the list of those to flush at the end of the turn
    uint32_t tpos; // in the heap of timers; 0: not there
    uint64_t due;
};

static struct conn conns[MAXFD];
static int ep, lfd, f_et, f_drain, f_arm, f_queue, f_clock, f_timer, f_permsg, f_gather;
static size_t rsize;
static char *rbuf;
static int live[MAXFD], nlive, livepos[MAXFD]; // fan: who gets what comes in
static int dirty[MAXFD], ndirty;
static volatile uint64_t sink_time;

static void ctl(int op, int fd, uint32_t events)
{
    struct epoll_event e;
    e.events = events;
    e.data.u64 = 0;
    e.data.fd = fd;
    epoll_ctl(ep, op, fd, &e);
}

static uint64_t mono(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// --- a binary heap of deadlines, as libuv, libev and libevent keep them -------------------------

static int heap[MAXFD + 1], nheap;

static void heap_set(int i, int fd)
{
    heap[i] = fd;
    conns[fd].tpos = (uint32_t)i;
}

static void heap_up(int i)
{
    int fd = heap[i];
    while (i > 1 && conns[heap[i / 2]].due > conns[fd].due) {
        heap_set(i, heap[i / 2]);
        i /= 2;
    }
    heap_set(i, fd);
}

static void heap_down(int i)
{
    int fd = heap[i], k;
    while ((k = 2 * i) <= nheap) {
        if (k < nheap && conns[heap[k + 1]].due < conns[heap[k]].due) k++;
        if (conns[heap[k]].due >= conns[fd].due) break;
        heap_set(i, heap[k]);
        i = k;
    }
    heap_set(i, fd);
}

static void timer_stop(int fd)
{
    int i = (int)conns[fd].tpos;
    if (!i) return;
    conns[fd].tpos = 0;
    int last = heap[nheap--];
    if (last == fd) return;
    heap_set(i, last);
    heap_up(i);
    heap_down((int)conns[last].tpos);
}

static void timer_reset(int fd)
{
    timer_stop(fd);
    conns[fd].due = mono() + 30000000000u;
    heap_set(++nheap, fd);
    heap_up(nheap);
}

// --- writing -----------------------------------------------------------------------------------

// An echo server that owes does not read on: the peer's window fills instead of our heap.
static uint32_t owing(void) { return g_mode == ECHO_ ? (uint32_t)EPOLLOUT : EPOLLIN | EPOLLOUT; }

static void arm(int fd, uint32_t events)
{
    if (conns[fd].armed) return;
    conns[fd].armed = 1;
    if (!f_et) ctl(EPOLL_CTL_MOD, fd, events);
}

static int flush(int fd)
{
    struct conn *c = &conns[fd];
    while (c->len) {
        ssize_t w = send(fd, c->out + c->off, c->len, MSG_NOSIGNAL);
        if (w < 0) {
            if (errno != EAGAIN) return -1;
            arm(fd, owing());
            return 0;
        }
        c->off += (uint32_t)w;
        c->len -= (uint32_t)w;
    }
    free(c->out);
    c->out = NULL;
    c->off = 0;
    if (c->armed) {
        c->armed = 0;
        if (!f_et) ctl(EPOLL_CTL_MOD, fd, EPOLLIN);
    }
    return 0;
}

static void enqueue(int fd, const char *p, size_t n)
{
    struct conn *c = &conns[fd];
    char *b = malloc(c->len + n);
    if (c->len) memcpy(b, c->out + c->off, c->len);
    memcpy(b + c->len, p, n);
    free(c->out);
    c->out = b;
    c->off = 0;
    c->len += (uint32_t)n;
}

static int put(int fd, const char *p, size_t n)
{
    struct conn *c = &conns[fd];
    if (f_arm) {
        enqueue(fd, p, n);
        arm(fd, EPOLLIN | EPOLLOUT);
        return 0;
    }
    if (f_queue || f_gather) {
        enqueue(fd, p, n);
        if (!c->ready) dirty[ndirty++] = fd;
        c->ready = 1;
        return 0;
    }
    if (!c->len) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        if (w == (ssize_t)n) return 0;
        if (w < 0 && errno != EAGAIN) return -1;
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        }
    }
    enqueue(fd, p, n);
    arm(fd, owing());
    return 0;
}

static int pour(int fd)
{
    for (int i = 0; i < 8; i++) {
        ssize_t w = send(fd, g_zeros, sizeof g_zeros, MSG_NOSIGNAL);
        if (w < 0) return errno == EAGAIN ? 0 : -1;
        if (w < (ssize_t)sizeof g_zeros) return 0;
    }
    return 0;
}

// --- reading, and the loop -----------------------------------------------------------------------

static void drop(int fd)
{
    struct conn *c = &conns[fd];
    if (f_timer) timer_stop(fd);
    free(c->out);
    memset(c, 0, sizeof *c);
    if (g_mode == FAN) {
        int p = livepos[fd];
        live[p] = live[--nlive];
        livepos[live[p]] = p;
    }
    close(fd); // takes it out of the epoll as well
}

static int answer(int fd, const char *p, size_t n)
{
    size_t step = (size_t)(f_permsg ? f_permsg : f_gather);
    if (!step) return put(fd, p, n);
    for (size_t i = 0; i < n; i += step) {
        if (put(fd, p + i, n - i < step ? n - i : step) < 0) return -1;
    }
    return 0;
}

// 1: more may wait, 0: done for now, -1: gone
static int input(int fd)
{
    ssize_t n = recv(fd, rbuf, rsize, 0);
    if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    if (f_clock) sink_time = mono();
    if (f_timer) timer_reset(fd);
    if (g_mode == ECHO_) {
        if (answer(fd, rbuf, (size_t)n) < 0) return -1;
    } else if (g_mode == FAN) {
        for (int i = 0; i < nlive; i++) {
            if (live[i] != fd) put(live[i], rbuf, (size_t)n);
        }
    }
    return n == (ssize_t)rsize || f_drain;
}

static void accept_all(void)
{
    uint32_t events = EPOLLIN;
    if (f_et) events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | (uint32_t)EPOLLET;
    if (g_mode == SOURCE) events = EPOLLIN | EPOLLOUT; // stops before EAGAIN: level-triggered
    for (int i = 0; i < 64; i++) {
        int fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) break;
        if (fd >= MAXFD) {
            close(fd);
            continue;
        }
        if (g_mode == FAN) {
            livepos[fd] = nlive;
            live[nlive++] = fd;
        }
        if (f_timer) timer_reset(fd);
        ctl(EPOLL_CTL_ADD, fd, events);
    }
}

static void on_event(int fd, uint32_t events)
{
    struct conn *c = &conns[fd];
    int owed = c->len && g_mode == ECHO_, broken = (events & (EPOLLHUP | EPOLLERR)) != 0, r;
    if (events & EPOLLOUT) {
        r = g_mode == SOURCE ? pour(fd) : c->len ? flush(fd) : 0;
        if (r < 0) {
            drop(fd);
            return;
        }
    }
    if (!(events & EPOLLIN) && !broken && !(f_et && owed)) return;
    if (c->len && g_mode == ECHO_ && !broken) return; // the peer must read first
    while ((r = input(fd)) > 0) {
        if ((!f_et && !f_drain) || (c->len && g_mode == ECHO_)) break;
    }
    if (r < 0) drop(fd);
}

static void end_of_turn(void)
{
    for (int i = 0; i < ndirty; i++) {
        int fd = dirty[i];
        if (!conns[fd].ready) continue;
        conns[fd].ready = 0;
        if (flush(fd) < 0) drop(fd);
    }
    ndirty = 0;
}

int main(int argc, char **argv)
{
    static struct epoll_event ev[512];
    start(argc, argv);
    f_et = flag("--et");
    f_drain = flag("--drain");
    f_arm = flag("--arm");
    f_queue = flag("--queue");
    f_clock = flag("--clock");
    f_timer = flag("--timer");
    f_permsg = atoi(option("--permsg", "0"));
    f_gather = atoi(option("--gather", "0"));
    rsize = (size_t)atol(option("--rbuf", "262144"));
    rbuf = malloc(rsize);
    uint64_t spin = (uint64_t)atol(option("--spin", "0")) * 1000u;
    int max = flag("--one") ? 1 : 512;
    ep = epoll_create1(EPOLL_CLOEXEC);
    lfd = listen_tcp();
    ctl(EPOLL_CTL_ADD, lfd, EPOLLIN);
    for (;;) {
        int n = 0;
        if (spin) {
            uint64_t until = mono() + spin;
            do {
                n = epoll_wait(ep, ev, max, 0);
            } while (!n && mono() < until);
        }
        if (!n) n = epoll_wait(ep, ev, max, -1);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.fd == lfd) {
                accept_all();
            } else {
                on_event(ev[i].data.fd, ev[i].events);
            }
        }
        if (ndirty) end_of_turn();
    }
}
