// kqueue() and kevent() on Linux's epoll, so that the kqueue backend's logic runs where its
// kernels are not. For tests only: it knows descriptors and EVFILT_USER, and favours plainness.
//
//     cc -I tests/support/kqueue -DNETIO__HAS_KQUEUE=1 ... tests/support/kqueue/kqueue.c
//        -Wl,--wrap=close,--wrap=getsockopt,--wrap=read,--wrap=readv,--wrap=recv -pthread
//        -Wl,--wrap=recvfrom,--wrap=recvmsg,--wrap=write,--wrap=writev -o test_poller
//        -Wl,--wrap=send,--wrap=sendto,--wrap=sendmsg ...
//
// "undefined reference to __real_close" means that these flags are missing. They redirect:
//   close     On BSD it removes the knotes of the number at once, duplicates or not, and ends a
//             queue. Here a queue is four descriptors, and epoll waits for the last duplicate.
//   the rest  See NETIO_TEST_KQUEUE_KEEP_ERROR below.
// Descriptors that end otherwise (dup2 onto them, close_range, fclose) are noticed when the kernel
// next answers ENOENT for them; then their knotes count as gone.
//
// A queue is an epoll (the number that the caller holds) of three descriptors: an epoll of the
// EVFILT_READ knotes, one of the EVFILT_WRITE knotes (so one descriptor has two registrations,
// each with its own edge) and an eventfd that is readable while an EVFILT_USER knote is triggered.
// The event data carries the knote's serial number besides its descriptor, and what comes for a
// knote that is no more is dropped.
//
// Where the manual pages leave room or disagree with the kernels, the strictest kernel is imitated:
//   - EV_ADD again replaces udata, and leaves EV_CLEAR, EV_ONESHOT, EV_DISPATCH as the first EV_ADD
//     said; it does not enable a disabled knote (the pages say so; FreeBSD, NetBSD, OpenBSD and
//     XNU do not do it). EV_ENABLE and EV_DISABLE replace udata too (FreeBSD).
//   - A stream socket that was never connected is neither readable nor writable.
//   - An error on a datagram socket is an event without EV_EOF, and fflags stay 0.
//   - The queue is not inherited by fork().
//   - A regular file is readable until its end, and always writable.
//
// Different from BSD: after shutdown(SHUT_WR) of our own, EVFILT_WRITE has no EV_EOF until the peer
// is gone too; a Unix listener's backlog is always told as 1; a pending datagram's `data` leaves
// out its address and may be 0; queues may not be passed on by dup(); a queue that holds regular
// files looks at them every 10 ms and does not become readable for an outer queue because of them.
#define _GNU_SOURCE
#include <sys/event.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

// BSD shows a socket's error in fflags and leaves it for SO_ERROR and recv() to find; Linux hands
// an error out once. So there are two builds, and a backend must be right in both:
//   0  fflags tell the error. It was taken from the kernel for that, so it is remembered here, and
//      the redirected calls hand it out as the kernel would have done.
//   1  fflags are 0, and the kernel keeps the error. No BSD is like that; it proves that nothing
//      depends on fflags.
#ifndef NETIO_TEST_KQUEUE_KEEP_ERROR
#define NETIO_TEST_KQUEUE_KEEP_ERROR 0
#endif

enum { READ, WRITE, FILTERS }; // the filters that an epoll serves
enum { USERS = FILTERS, FILES, SOURCES };

// What epoll_wait is asked for at once, and how often in vain, before a look without waiting ends.
enum { BATCH = 1024, TRIES = 16 };

typedef struct knote {
    uintptr_t ident;
    void *udata;
    int64_t data;         // EVFILT_USER: the user's; a file with EV_CLEAR: what was reported last
    unsigned fflags;      // EVFILT_USER: the user's
    uint32_t serial;      // 0: there is no knote in this place
    unsigned short flags; // EV_CLEAR, EV_ONESHOT, EV_DISPATCH, EV_RECEIPT of the first EV_ADD
    bool disabled;
    bool triggered; // EVFILT_USER
    bool is_file;   // epoll refuses it: asked for by hand
    bool is_parked; // level, but its state is one that BSD does not report: waits for an edge
} knote;

typedef struct queue {
    struct queue *next;
    int kq;
    int inner[FILTERS];
    int user_fd;
    int waiting; // calls of kevent() that use this struct
    bool is_closed;
    bool is_signalled; // user_fd
    int turn;          // the source that is asked first, so that none starves for want of room
    size_t files;
    knote *by_fd[FILTERS]; // indexed by descriptor
    size_t cap[FILTERS];
    knote *users;
    size_t user_count, user_cap;
} queue;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // for all that follows
static pthread_once_t once = PTHREAD_ONCE_INIT;
static queue *queues;
static uint32_t last_serial;
static int *kept_errors; // indexed by descriptor
static size_t kept_cap;

// The names that the linker's --wrap gives to the C library's functions.
int __real_close(int fd);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
ssize_t __real_read(int fd, void *buf, size_t len);
ssize_t __real_readv(int fd, const struct iovec *iov, int count);
ssize_t __real_recv(int fd, void *buf, size_t len, int flags);
ssize_t __real_recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *from,
                        socklen_t *from_len);
ssize_t __real_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t __real_write(int fd, const void *buf, size_t len);
ssize_t __real_writev(int fd, const struct iovec *iov, int count);
ssize_t __real_send(int fd, const void *buf, size_t len, int flags);
ssize_t __real_sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
                      socklen_t to_len);
ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
int __wrap_close(int fd);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
ssize_t __wrap_read(int fd, void *buf, size_t len);
ssize_t __wrap_readv(int fd, const struct iovec *iov, int count);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *from,
                        socklen_t *from_len);
ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
ssize_t __wrap_writev(int fd, const struct iovec *iov, int count);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
                      socklen_t to_len);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);

//================================================================================================
// What the kernel knows of a descriptor
//================================================================================================

static int option(int fd, int name)
{
    int value = 0;
    socklen_t len = sizeof value;
    return __real_getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 ? value : 0;
}

// 0: not a socket.
static int socket_type(int fd) { return option(fd, SO_TYPE); }

static bool is_stream(int type) { return type == SOCK_STREAM || type == SOCK_SEQPACKET; }

static int64_t backlog(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    memset(&info, 0, sizeof info);
    // For a listener the kernel reports the length of its queue here, and its limit in tcpi_sacked.
    if (__real_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0) return 1;
    return info.tcpi_unacked > 0 ? info.tcpi_unacked : 1;
}

static int64_t bytes_to_read(int fd)
{
    int n = 0;
    if (option(fd, SO_ACCEPTCONN)) return backlog(fd);
    return ioctl(fd, FIONREAD, &n) == 0 ? n : 1; // an eventfd or a queue: something
}

static int64_t room_to_write(int fd, int type)
{
    int used = 0;
    int size = type ? option(fd, SO_SNDBUF) : fcntl(fd, F_GETPIPE_SZ);
    if (size < 0 || ioctl(fd, type ? (unsigned long)TIOCOUTQ : (unsigned long)FIONREAD, &used) < 0)
        return 0;
    return size > used ? size - used : 0;
}

static int64_t bytes_to_end(int fd)
{
    struct stat st;
    off_t at = lseek(fd, 0, SEEK_CUR);
    return at >= 0 && fstat(fd, &st) == 0 ? (int64_t)st.st_size - (int64_t)at : 0;
}

// The error that the kernel had for this socket; it is remembered until somebody asks for it.
static unsigned show_error(int fd)
{
    size_t at = (size_t)fd;
    int error = option(fd, SO_ERROR);
    if (error && at >= kept_cap) {
        size_t cap = at + 64;
        int *grown = (int *)realloc(kept_errors, cap * sizeof *grown);
        if (!grown) return (unsigned)error;
        memset(grown + kept_cap, 0, (cap - kept_cap) * sizeof *grown);
        kept_errors = grown;
        kept_cap = cap;
    }
    if (error) kept_errors[at] = error;
    return at < kept_cap ? (unsigned)kept_errors[at] : 0;
}

static int take_error(int fd)
{
    int error = 0;
    pthread_mutex_lock(&lock);
    if (fd >= 0 && (size_t)fd < kept_cap) {
        error = kept_errors[fd];
        kept_errors[fd] = 0;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

//================================================================================================
// Knotes
//================================================================================================

static int filter_index(short filter) { return filter == EVFILT_READ ? READ : WRITE; }

static knote *find_by_fd(queue *q, int f, uintptr_t ident)
{
    return ident < q->cap[f] && q->by_fd[f][ident].serial ? &q->by_fd[f][ident] : NULL;
}

static knote *find(queue *q, short filter, uintptr_t ident)
{
    if (filter != EVFILT_USER) return find_by_fd(q, filter_index(filter), ident);
    for (size_t i = 0; i < q->user_count; i++)
        if (q->users[i].ident == ident) return &q->users[i];
    return NULL;
}

// A place for a new knote, all zero; NULL if there is no memory.
static knote *place(queue *q, short filter, uintptr_t ident)
{
    bool user = filter == EVFILT_USER;
    int f = user ? 0 : filter_index(filter);
    knote **list = user ? &q->users : &q->by_fd[f];
    size_t *cap = user ? &q->user_cap : &q->cap[f];
    size_t at = user ? q->user_count : (size_t)ident;
    if (at >= *cap) {
        size_t wanted = at + at / 2 + 16;
        knote *grown = (knote *)realloc(*list, wanted * sizeof *grown);
        if (!grown) return NULL;
        memset(grown + *cap, 0, (wanted - *cap) * sizeof *grown);
        *list = grown;
        *cap = wanted;
    }
    if (user) q->user_count++;
    memset(&(*list)[at], 0, sizeof **list);
    return &(*list)[at];
}

static int control(queue *q, int f, int op, const knote *k)
{
    struct epoll_event e;
    memset(&e, 0, sizeof e);
    if (!k->disabled) e.events = f == READ ? EPOLLIN | EPOLLRDHUP : EPOLLOUT;
    // A disabled knote stays in the epoll: its absence is how a closed descriptor shows. The kernel
    // reports hang-ups nevertheless; as an edge they come once.
    if (k->disabled || k->is_parked || (k->flags & EV_CLEAR)) e.events |= (uint32_t)EPOLLET;
    e.data.u64 = (uint64_t)k->serial << 32 | (uint32_t)k->ident;
    return epoll_ctl(q->inner[f], op, (int)k->ident, &e) < 0 ? errno : 0;
}

static void erase(queue *q, short filter, knote *k)
{
    if (filter == EVFILT_USER) {
        *k = q->users[--q->user_count];
        return;
    }
    if (k->is_file) q->files--;
    else control(q, filter_index(filter), EPOLL_CTL_DEL, k); // may have gone with its descriptor
    k->serial = 0;
}

static void signal_users(queue *q)
{
    eventfd_t ignored;
    bool any = false;
    for (size_t i = 0; i < q->user_count; i++)
        if (q->users[i].triggered && !q->users[i].disabled) any = true;
    if (any == q->is_signalled) return;
    q->is_signalled = any;
    if (any) eventfd_write(q->user_fd, 1);
    else eventfd_read(q->user_fd, &ignored);
}

//================================================================================================
// Changes
//================================================================================================

static int add(queue *q, const struct kevent *c)
{
    knote *k = place(q, c->filter, c->ident);
    int err = 0, f = filter_index(c->filter);
    if (!k) return ENOMEM;
    if (++last_serial == 0) ++last_serial;
    k->serial = last_serial;
    k->ident = c->ident;
    k->udata = c->udata;
    k->flags = (unsigned short)(c->flags & (EV_CLEAR | EV_ONESHOT | EV_DISPATCH | EV_RECEIPT));
    k->disabled = (c->flags & EV_DISABLE) && !(c->flags & EV_ENABLE);
    if (c->filter == EVFILT_USER) {
        k->fflags = c->fflags & NOTE_FFLAGSMASK;
        k->data = c->data;
        k->triggered = (c->fflags & NOTE_TRIGGER) != 0;
        return 0;
    }
    err = control(q, f, EPOLL_CTL_ADD, k);
    if (err == EPERM) { // a regular file or a directory
        k->is_file = true;
        q->files++;
        return 0;
    }
    if (err) k->serial = 0;
    return err;
}

static void change_user(knote *k, const struct kevent *c)
{
    unsigned bits = c->fflags & NOTE_FFLAGSMASK;
    switch (c->fflags & NOTE_FFCTRLMASK) {
    case NOTE_FFAND: k->fflags &= bits; break;
    case NOTE_FFOR: k->fflags |= bits; break;
    case NOTE_FFCOPY: k->fflags = bits; break;
    default: break;
    }
    k->data = c->data;
    if (c->fflags & NOTE_TRIGGER) k->triggered = true;
    if (c->flags & EV_CLEAR) k->triggered = false;
}

// 0, or an errno.
static int change(queue *q, const struct kevent *c)
{
    knote *k;
    int err = 0;
    bool user = c->filter == EVFILT_USER;
    if (!user && c->filter != EVFILT_READ && c->filter != EVFILT_WRITE) return EINVAL;
    if (!user && (c->ident > INT_MAX || fcntl((int)c->ident, F_GETFD) < 0)) return EBADF;
    if (!user && (int)c->ident == q->kq) return EINVAL;
    k = find(q, c->filter, c->ident);
    if (!k) return c->flags & EV_ADD ? add(q, c) : ENOENT;
    if (c->flags & EV_DELETE) {
        // Its descriptor may have been closed unseen: then BSD has no knote here.
        if (!user && !k->is_file) err = control(q, filter_index(c->filter), EPOLL_CTL_MOD, k);
        erase(q, c->filter, k);
        return err;
    }
    k->udata = c->udata;
    if (c->flags & EV_ENABLE) k->disabled = false;
    else if (c->flags & EV_DISABLE) k->disabled = true;
    if (user) {
        change_user(k, c);
        return 0;
    }
    k->is_parked = false;
    k->data = -1; // a file with EV_CLEAR: report it anew
    if (k->is_file) return 0;
    // This also looks at the state again, as BSD runs the filter at each change.
    err = control(q, filter_index(c->filter), EPOLL_CTL_MOD, k);
    if (err == ENOENT) {
        erase(q, c->filter, k);
        if (c->flags & EV_ADD) err = add(q, c);
    }
    return err;
}

//================================================================================================
// Events
//================================================================================================

static void fill(const knote *k, short filter, struct kevent *out)
{
    memset(out, 0, sizeof *out);
    out->ident = k->ident;
    out->filter = filter;
    out->flags = k->flags;
    out->udata = k->udata;
}

// True if BSD has nothing to report: epoll calls a stream that was never connected hung up.
static bool is_unconnected(int fd, int type, uint32_t got)
{
    struct pollfd p = {fd, POLLRDHUP, 0};
    if (!(got & EPOLLHUP) || !is_stream(type)) return false;
    return poll(&p, 1, 0) <= 0 || !(p.revents & (POLLRDHUP | POLLERR));
}

// False if this is no event on BSD.
static bool fill_from_epoll(const knote *k, int f, uint32_t got, struct kevent *out)
{
    int fd = (int)k->ident;
    int type = socket_type(fd);
    uint32_t end = EPOLLHUP;
    if (is_unconnected(fd, type, got)) return false;
    if (f == READ) end |= EPOLLRDHUP;
    if (!type || is_stream(type)) end |= EPOLLERR;
    fill(k, f == READ ? EVFILT_READ : EVFILT_WRITE, out);
    out->data = f == READ ? bytes_to_read(fd) : room_to_write(fd, type);
    if (got & end) {
        out->flags |= EV_EOF;
        if (type && !NETIO_TEST_KQUEUE_KEEP_ERROR) out->fflags = show_error(fd);
    }
    return true;
}

// What a delivery does to its knote.
static void delivered(queue *q, short filter, knote *k)
{
    if (k->flags & EV_ONESHOT) {
        erase(q, filter, k);
        return;
    }
    if (filter == EVFILT_USER && (k->flags & EV_CLEAR)) k->triggered = false;
    if (!(k->flags & EV_DISPATCH)) return;
    k->disabled = true;
    if (filter != EVFILT_USER && !k->is_file) control(q, filter_index(filter), EPOLL_CTL_MOD, k);
}

static void park(queue *q, int f, knote *k, bool on)
{
    if (k->is_parked == on) return;
    k->is_parked = on;
    if (!(k->flags & EV_CLEAR)) control(q, f, EPOLL_CTL_MOD, k);
}

// How many were filled; `*more` is set if the kernel had any, even those that are no event here.
static int collect_epoll(queue *q, int f, struct kevent *out, int cap, bool *more)
{
    struct epoll_event list[BATCH];
    int filled = 0;
    int n = cap > 0 ? epoll_wait(q->inner[f], list, cap < BATCH ? cap : BATCH, 0) : 0;
    for (int i = 0; i < n; i++) {
        knote *k = find_by_fd(q, f, (uint32_t)list[i].data.u64);
        *more = true;
        if (!k || k->serial != list[i].data.u64 >> 32 || k->disabled) continue;
        if (fill_from_epoll(k, f, list[i].events, &out[filled])) {
            filled++;
            park(q, f, k, false);
            delivered(q, f == READ ? EVFILT_READ : EVFILT_WRITE, k);
        } else {
            park(q, f, k, true);
        }
    }
    return filled;
}

static int collect_users(queue *q, struct kevent *out, int cap)
{
    int filled = 0;
    for (size_t i = q->user_count; i-- > 0 && filled < cap;) { // erase() moves the last one here
        knote *k = &q->users[i];
        if (!k->triggered || k->disabled) continue;
        fill(k, EVFILT_USER, &out[filled]);
        out[filled].fflags = k->fflags;
        out[filled++].data = k->data;
        delivered(q, EVFILT_USER, k);
    }
    signal_users(q);
    return filled;
}

static int collect_files(queue *q, struct kevent *out, int cap)
{
    int filled = 0;
    for (int f = 0; f < FILTERS && q->files > 0; f++) {
        for (size_t i = 0; i < q->cap[f] && filled < cap; i++) {
            knote *k = &q->by_fd[f][i];
            int64_t left;
            if (!k->serial || !k->is_file || k->disabled) continue;
            left = f == READ ? bytes_to_end((int)i) : 0;
            if (f == READ && left == 0) continue;
            if ((k->flags & EV_CLEAR) && left == k->data) continue;
            k->data = left;
            fill(k, f == READ ? EVFILT_READ : EVFILT_WRITE, &out[filled]);
            out[filled++].data = left;
            delivered(q, f == READ ? EVFILT_READ : EVFILT_WRITE, k);
        }
    }
    return filled;
}

static int collect(queue *q, struct kevent *out, int cap)
{
    bool more = true;
    int filled = 0;
    for (int tries = 0; more && filled == 0 && tries < TRIES; tries++) {
        more = false;
        for (int i = 0; i < SOURCES; i++) {
            int from = (q->turn + i) % SOURCES;
            if (from == USERS) filled += collect_users(q, out + filled, cap - filled);
            else if (from == FILES) filled += collect_files(q, out + filled, cap - filled);
            else filled += collect_epoll(q, from, out + filled, cap - filled, &more);
        }
        q->turn = (q->turn + 1) % SOURCES;
    }
    return filled;
}

//================================================================================================
// Queues
//================================================================================================

static queue *find_queue(int kq)
{
    for (queue *q = queues; q; q = q->next)
        if (q->kq == kq) return q;
    return NULL;
}

// Everything but kq itself, which is the caller's.
static void free_queue(queue *q)
{
    if (q->inner[READ] >= 0) __real_close(q->inner[READ]);
    if (q->inner[WRITE] >= 0) __real_close(q->inner[WRITE]);
    if (q->user_fd >= 0) __real_close(q->user_fd);
    free(q->by_fd[READ]);
    free(q->by_fd[WRITE]);
    free(q->users);
    free(q);
}

static void release(queue *q)
{
    queue **link = &queues;
    while (*link != q) link = &(*link)->next;
    *link = q->next;
    q->is_closed = true;
    // Who still waits on it wakes up, says EBADF and is the one to free it.
    if (q->waiting > 0) eventfd_write(q->user_fd, 1);
    else free_queue(q);
}

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork_parent(void) { pthread_mutex_unlock(&lock); }

static void after_fork_child(void)
{
    while (queues) {
        queue *q = queues;
        queues = q->next;
        __real_close(q->kq);
        free_queue(q); // those who wait on it are threads of the parent
    }
    pthread_mutex_unlock(&lock);
}

static void start(void) { pthread_atfork(before_fork, after_fork_parent, after_fork_child); }

static bool enter(int outer, int fd)
{
    struct epoll_event e;
    memset(&e, 0, sizeof e);
    e.events = EPOLLIN;
    return fd >= 0 && epoll_ctl(outer, EPOLL_CTL_ADD, fd, &e) == 0;
}

int kqueue(void)
{
    queue *q = (queue *)calloc(1, sizeof *q), *old;
    int err;
    pthread_once(&once, start);
    if (!q) {
        errno = ENOMEM;
        return -1;
    }
    q->kq = epoll_create1(EPOLL_CLOEXEC);
    q->inner[READ] = epoll_create1(EPOLL_CLOEXEC);
    q->inner[WRITE] = epoll_create1(EPOLL_CLOEXEC);
    q->user_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->kq < 0 || !enter(q->kq, q->inner[READ]) || !enter(q->kq, q->inner[WRITE]) ||
        !enter(q->kq, q->user_fd)) {
        err = errno;
        if (q->kq >= 0) __real_close(q->kq);
        free_queue(q);
        errno = err;
        return -1;
    }
    pthread_mutex_lock(&lock);
    old = find_queue(q->kq); // the number is free again, so that one was closed unseen
    if (old) release(old);
    q->next = queues;
    queues = q;
    pthread_mutex_unlock(&lock);
    return q->kq;
}

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

// One wait, outside the lock. `until` < 0: for ever. Returns 0 or an errno.
static int sleep_until(queue *q, int64_t until)
{
    struct pollfd p = {q->kq, POLLIN, 0};
    struct timespec ts;
    int64_t left = until < 0 ? INT64_MAX : until - now_ns();
    int err;
    if (left < 0) left = 0;
    if (q->files > 0 && left > 10000000) left = 10000000;
    ts.tv_sec = (time_t)(left / 1000000000);
    ts.tv_nsec = (long)(left % 1000000000);
    pthread_mutex_unlock(&lock);
    err = ppoll(&p, 1, left == INT64_MAX ? NULL : &ts, NULL) < 0 ? errno : 0;
    pthread_mutex_lock(&lock);
    return q->is_closed ? EBADF : err;
}

// Returns how many were filled, or a negated errno.
static int wait_for_events(queue *q, struct kevent *out, int cap, const struct timespec *timeout)
{
    int64_t until = -1;
    if (cap == 0) return 0; // at once, whatever the timeout
    if (timeout) {
        if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)
            return -EINVAL;
        // More than a century is for ever, and the sum must not overflow.
        int64_t seconds = timeout->tv_sec;
        if (seconds < INT64_C(4000000000))
            until = now_ns() + seconds * 1000000000 + timeout->tv_nsec;
    }
    for (;;) {
        int filled = collect(q, out, cap), err;
        if (filled > 0) return filled;
        if (until >= 0 && now_ns() >= until) return 0;
        err = sleep_until(q, until);
        if (err) return -err;
    }
}

// Returns how many entries tell of errors and receipts, or a negated errno. What comes after the
// first one that found no room is left out.
static int apply_changes(queue *q, const struct kevent *changes, int count, struct kevent *out,
                         int cap)
{
    int filled = 0;
    for (int i = 0; i < count; i++) {
        struct kevent c = changes[i]; // `out` may be the same array
        int err = change(q, &c);
        if (!err && !(c.flags & EV_RECEIPT)) continue;
        if (filled == cap) return err ? -err : filled;
        c.flags = EV_ERROR;
        c.data = err;
        out[filled++] = c;
    }
    return filled;
}

int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout)
{
    queue *q;
    int result = -EBADF;
    if (nchanges < 0 || nevents < 0) {
        errno = EINVAL;
        return -1;
    }
    pthread_mutex_lock(&lock);
    q = find_queue(kq);
    if (q) {
        q->waiting++;
        result = apply_changes(q, changes, nchanges, events, nevents);
        signal_users(q);
        if (result == 0) result = wait_for_events(q, events, nevents, timeout);
        if (--q->waiting == 0 && q->is_closed) free_queue(q);
    }
    pthread_mutex_unlock(&lock);
    if (result >= 0) return result;
    errno = -result;
    return -1;
}

//================================================================================================
// Redirected calls
//================================================================================================

int __wrap_close(int fd)
{
    int before = errno;
    queue *own;
    pthread_mutex_lock(&lock);
    own = find_queue(fd);
    if (own) release(own);
    for (queue *q = queues; q && fd >= 0; q = q->next) {
        knote *r = find_by_fd(q, READ, (uintptr_t)fd), *w = find_by_fd(q, WRITE, (uintptr_t)fd);
        if (r) erase(q, EVFILT_READ, r);
        if (w) erase(q, EVFILT_WRITE, w);
    }
    if (fd >= 0 && (size_t)fd < kept_cap) kept_errors[fd] = 0;
    pthread_mutex_unlock(&lock);
    errno = before;
    return __real_close(fd);
}

int kqueue_shim_close(int kq) { return __wrap_close(kq); }

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    int result = __real_getsockopt(fd, level, name, value, len);
    if (result == 0 && level == SOL_SOCKET && name == SO_ERROR && *len == sizeof(int)) {
        int error;
        memcpy(&error, value, sizeof error);
        if (!error) error = take_error(fd);
        memcpy(value, &error, sizeof error);
    }
    return result;
}

// The kernel hands out data first, then the error, then the end.
static ssize_t after_data(int fd, ssize_t result, size_t asked)
{
    int error = result == 0 && asked > 0 ? take_error(fd) : 0;
    if (!error) return result;
    errno = error;
    return -1;
}

static size_t total(const struct iovec *iov, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++) sum += iov[i].iov_len;
    return sum;
}

ssize_t __wrap_read(int fd, void *buf, size_t len)
{
    return after_data(fd, __real_read(fd, buf, len), len);
}

ssize_t __wrap_readv(int fd, const struct iovec *iov, int count)
{
    ssize_t result = __real_readv(fd, iov, count);
    return result ? result : after_data(fd, result, total(iov, (size_t)count));
}

ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags)
{
    return after_data(fd, __real_recv(fd, buf, len, flags), len);
}

ssize_t __wrap_recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *from,
                        socklen_t *from_len)
{
    return after_data(fd, __real_recvfrom(fd, buf, len, flags, from, from_len), len);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags)
{
    ssize_t result = __real_recvmsg(fd, msg, flags);
    return result ? result : after_data(fd, result, total(msg->msg_iov, (size_t)msg->msg_iovlen));
}

// A sender meets the error before anything else.
static bool meets_error(int fd)
{
    int error = take_error(fd);
    if (error) errno = error;
    return error != 0;
}

ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
    return meets_error(fd) ? -1 : __real_write(fd, buf, len);
}

ssize_t __wrap_writev(int fd, const struct iovec *iov, int count)
{
    return meets_error(fd) ? -1 : __real_writev(fd, iov, count);
}

ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags)
{
    return meets_error(fd) ? -1 : __real_send(fd, buf, len, flags);
}

ssize_t __wrap_sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
                      socklen_t to_len)
{
    return meets_error(fd) ? -1 : __real_sendto(fd, buf, len, flags, to, to_len);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return meets_error(fd) ? -1 : __real_sendmsg(fd, msg, flags);
}
