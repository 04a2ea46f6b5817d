// The n-th system call goes wrong: what test_fault.c and test_conn_faults.c share.
//
// A program that includes this names the functions in its first lines ("// WRAP: ..."), so that the
// linker puts the wrappers below between the library and the C library (Linux only). A story is a
// function of calls in DO and TRY; every_call runs it once for each system call in it and each way
// in which that may fail, and judges what the story told.
#ifndef NETIO_TEST_FAULT_H
#define NETIO_TEST_FAULT_H

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

//================================================================================================
// The fault
//================================================================================================

// clang-format off
enum { C_ACCEPT, C_BIND, C_CLOSE, C_CONNECT, C_DUP, C_EPOLL_CREATE, C_EPOLL_CTL, C_EPOLL_WAIT,
       C_EVENTFD, C_FCNTL, C_FSTAT, C_GETNAME, C_GETOPT, C_IOCTL, C_LISTEN, C_POLL,
       C_PIPE, C_PREAD, C_READ, C_RECV, C_SELECT, C_SEND, C_SENDFILE, C_SETOPT, C_SHUTDOWN,
       C_SOCKET, C_SOCKETPAIR, C_STAT, C_UNLINK, C_WRITE, C_DRAIN, C_SPLICE, CALLS };

// What each may fail with. EINTR and EAGAIN stand only where the system really may say so to the
// kind of descriptor that netio has; EBADF nowhere, it would be somebody else's fault.
static const struct {
    const char *name;
    int err[12];
} calls[CALLS] = {
    {"accept", {EINTR, EAGAIN, ENOSYS, ECONNABORTED, EPROTO, EPERM, ENETDOWN, EMFILE, ENFILE,
                ENOBUFS, ENOMEM}},
    {"bind", {EADDRINUSE, EACCES, EADDRNOTAVAIL, ENOMEM}},
    {"close", {EINTR, EIO}},
    {"connect", {EINTR, ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, ENOBUFS,
                 EACCES, ECONNRESET}},
    {"dup", {EINTR, EMFILE}},
    {"epoll_create1", {EMFILE, ENFILE, ENOMEM}},
    {"epoll_ctl", {ENOMEM, ENOSPC}},
    {"epoll_wait", {EINTR, ENOMEM, EINVAL}},
    {"eventfd", {ENOSYS, EMFILE, ENFILE, ENOMEM}},
    {"fcntl", {EINVAL, ENOMEM}},
    {"fstat", {EOVERFLOW}},
    {"getsockname", {ENOBUFS, EINVAL}},
    {"getsockopt", {ENOBUFS, ENOPROTOOPT, EINVAL}},
    {"ioctl", {EINVAL}},
    {"listen", {EADDRINUSE, EINVAL}},
    {"poll", {EINTR, ENOMEM, EINVAL}},
    {"pipe2", {EMFILE, ENFILE}},
    {"pread", {EINTR, EIO}},
    {"read", {EINTR, EIO}},
    {"recv", {EINTR, EAGAIN, ECONNRESET, ENOMEM, ENOBUFS, ETIMEDOUT}},
    {"select", {EINTR, ENOMEM, EINVAL}},
    {"send", {EINTR, EAGAIN, ENOBUFS, ENOMEM, ECONNRESET, EPIPE}},
    {"sendfile", {EINTR, EAGAIN, EINVAL, ENOSYS, EIO, ENOMEM, ECONNRESET, EPIPE}},
    {"setsockopt", {ENOMEM, ENOPROTOOPT, EINVAL}},
    {"shutdown", {ENOBUFS}},
    {"socket", {EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES, EAFNOSUPPORT}},
    {"socketpair", {EMFILE, ENFILE, ENOMEM}},
    {"stat", {EACCES, ENOENT}},
    {"unlink", {EACCES, ENOENT}},
    {"write", {EINTR}},
    {"read of a wake", {EINTR, EAGAIN}},
    {"splice", {EINTR, EAGAIN, ENOMEM, ECONNRESET}},
};
// clang-format on

enum { WHOLE, ONE_BYTE, HALF };
enum {
    STORM_EINTR = 1,
    STORM_SHORT = 2,
    ALWAYS_EINTR = 4,
    ALWAYS_EAGAIN = 8,
    NO_EPOLL = 16,
    NO_THREAD = 32,
    NO_ACCEPT = 64 // descriptors have run out
};

static __thread bool armed; // on the thread of the story alone, and only within its calls
static struct {
    long at;           // which call to strike; 0: none
    int variant;       // how: an index into the call's errors, then the two short counts
    unsigned storm;    // STORM_*: strike all of them instead
    long seen;         // calls so far
    long count[CALLS]; // the same by kind
    bool hit, last;    // it was struck; there is no further variant for this call
    bool strange;      // a descriptor was closed that was not open
    int call, err;     // what was struck, with what
    int cut;           // WHOLE, ONE_BYTE, HALF: what remains of this call
    bool turn[CALLS];  // storms let every second call through
} f;

static bool may_interrupt(int call) { return calls[call].err[0] == EINTR && call != C_CLOSE; }

// Called by every wrapper. Returns the errno to fail with, or 0; sets f.cut.
static int strike(int call, bool can_cut)
{
    int errs = 0;
    f.cut = WHOLE;
    if (!armed) return 0;
    f.seen++;
    f.count[call]++;
    if (f.storm) {
        if (f.storm & STORM_SHORT && can_cut) f.cut = ONE_BYTE;
        if (f.storm & NO_ACCEPT) return call == C_ACCEPT ? EMFILE : 0;
        if (f.storm & NO_EPOLL && call == C_EPOLL_CREATE) return ENOSYS;
        if (f.storm & ALWAYS_EAGAIN && (call == C_RECV || call == C_SEND)) return EAGAIN;
        if (!may_interrupt(call)) return 0;
        if (f.storm & ALWAYS_EINTR)
            return call == C_POLL || call == C_SELECT || call == C_EPOLL_WAIT ? EINTR : 0;
        if (!(f.storm & STORM_EINTR)) return 0;
        f.turn[call] = !f.turn[call];
        return f.turn[call] ? EINTR : 0;
    }
    if (f.seen != f.at) return 0;
    f.hit = true;
    f.call = call;
    while (errs < 12 && calls[call].err[errs]) errs++;
    f.last = f.variant + 1 >= errs + (can_cut ? 2 : 0);
    if (f.variant < errs) return f.err = calls[call].err[f.variant];
    f.cut = f.variant == errs ? ONE_BYTE : HALF;
    return 0;
}

static size_t cut(size_t len)
{
    return len == 0 || f.cut == WHOLE ? len : f.cut == ONE_BYTE ? 1 : (len + 1) / 2;
}

//================================================================================================
// The wrappers
//================================================================================================

#define STRIKE(call, can_cut)                                                                      \
    do {                                                                                           \
        int e_ = strike(call, can_cut);                                                            \
        if (e_) {                                                                                  \
            errno = e_;                                                                            \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

// A C library that is linked statically is wrapped too, and may do recv() by recvfrom(): that is
// still one call of ours.
#define THROUGH(type, call)                                                                        \
    do {                                                                                           \
        bool armed_ = armed;                                                                       \
        armed = false;                                                                             \
        type result_ = call;                                                                       \
        armed = armed_;                                                                            \
        return result_;                                                                            \
    } while (0)

// clang-format off
#define WRAP(call, type, name, params, args)                                                       \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        STRIKE(call, false);                                                                       \
        THROUGH(type, __real_##name args);                                                         \
    }

WRAP(C_ACCEPT, int, accept, (int s, struct sockaddr *a, socklen_t *len), (s, a, len))
WRAP(C_ACCEPT, int, accept4, (int s, struct sockaddr *a, socklen_t *len, int flags),
     (s, a, len, flags))
WRAP(C_BIND, int, bind, (int s, const struct sockaddr *a, socklen_t len), (s, a, len))
WRAP(C_DUP, int, dup, (int fd), (fd))
WRAP(C_DUP, int, dup3, (int fd, int to, int flags), (fd, to, flags))
WRAP(C_EPOLL_CREATE, int, epoll_create1, (int flags), (flags))
WRAP(C_EPOLL_WAIT, int, epoll_wait, (int ep, struct epoll_event *e, int cap, int ms),
     (ep, e, cap, ms))
WRAP(C_EVENTFD, int, eventfd, (unsigned value, int flags), (value, flags))
WRAP(C_FSTAT, int, fstat, (int fd, struct stat *out), (fd, out))
WRAP(C_GETNAME, int, getpeername, (int s, struct sockaddr *a, socklen_t *len), (s, a, len))
WRAP(C_GETNAME, int, getsockname, (int s, struct sockaddr *a, socklen_t *len), (s, a, len))
WRAP(C_GETOPT, int, getsockopt, (int s, int level, int name, void *value, socklen_t *len),
     (s, level, name, value, len))
WRAP(C_LISTEN, int, listen, (int s, int backlog), (s, backlog))
WRAP(C_STAT, int, lstat, (const char *path, struct stat *out), (path, out))
WRAP(C_PIPE, int, pipe2, (int fd[2], int flags), (fd, flags))
WRAP(C_POLL, int, poll, (struct pollfd *fds, nfds_t count, int ms), (fds, count, ms))
WRAP(C_SELECT, int, select, (int count, fd_set *r, fd_set *w, fd_set *x, struct timeval *tv),
     (count, r, w, x, tv))
WRAP(C_SETOPT, int, setsockopt, (int s, int level, int name, const void *value, socklen_t len),
     (s, level, name, value, len))
WRAP(C_SHUTDOWN, int, shutdown, (int s, int how), (s, how))
WRAP(C_SOCKET, int, socket, (int family, int type, int protocol), (family, type, protocol))
WRAP(C_SOCKETPAIR, int, socketpair, (int family, int type, int protocol, int out[2]),
     (family, type, protocol, out))
WRAP(C_UNLINK, int, unlink, (const char *path), (path))
// clang-format on

// Only a stream may do a part of its work: not datagrams, records, or an eventfd.
static bool is_stream(int fd)
{
    int type = 0;
    socklen_t len = sizeof type;
    if (!armed) return false;
    return __real_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
}

// The kernel looks whether it knows the descriptor before it runs out of room for it.
int __real_epoll_ctl(int ep, int op, int fd, struct epoll_event *e);
int __wrap_epoll_ctl(int ep, int op, int fd, struct epoll_event *e);
int __wrap_epoll_ctl(int ep, int op, int fd, struct epoll_event *e)
{
    int err = strike(C_EPOLL_CTL, false), result = 0;
    if (!err || op == EPOLL_CTL_ADD) result = __real_epoll_ctl(ep, op, fd, e);
    if (!err || result < 0) return result;
    if (op == EPOLL_CTL_ADD) __real_epoll_ctl(ep, EPOLL_CTL_DEL, fd, e);
    errno = err;
    return -1;
}

// Linux has closed it whatever it says; so does this one.
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    int err = strike(C_CLOSE, false), result = __real_close(fd);
    if (armed && result < 0 && errno == EBADF) f.strange = true;
    if (!err || result < 0) return result;
    errno = err;
    return -1;
}

// An interrupted connect goes on by itself.
int __real_connect(int s, const struct sockaddr *a, socklen_t len);
int __wrap_connect(int s, const struct sockaddr *a, socklen_t len);
int __wrap_connect(int s, const struct sockaddr *a, socklen_t len)
{
    int err = strike(C_CONNECT, false), result = -1;
    if (!err || err == EINTR) result = __real_connect(s, a, len);
    if (!err || (err == EINTR && result < 0 && errno != EINPROGRESS)) return result;
    errno = err;
    return -1;
}

int __real_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...)
{
    va_list args;
    va_start(args, cmd);
    void *arg = va_arg(args, void *);
    va_end(args);
    STRIKE(C_FCNTL, false);
    THROUGH(int, __real_fcntl(fd, cmd, arg));
}

int __real_ioctl(int fd, unsigned long what, ...);
int __wrap_ioctl(int fd, unsigned long what, ...);
int __wrap_ioctl(int fd, unsigned long what, ...)
{
    va_list args;
    va_start(args, what);
    void *arg = va_arg(args, void *);
    va_end(args);
    STRIKE(C_IOCTL, false);
    THROUGH(int, __real_ioctl(fd, what, arg));
}

ssize_t __real_read(int fd, void *buf, size_t len);
ssize_t __wrap_read(int fd, void *buf, size_t len);
ssize_t __wrap_read(int fd, void *buf, size_t len)
{
    STRIKE(len == sizeof(uint64_t) ? C_DRAIN : C_READ, is_stream(fd)); // 8: an eventfd's
    THROUGH(ssize_t, __real_read(fd, buf, cut(len)));
}

ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len)
{
    STRIKE(C_WRITE, is_stream(fd));
    THROUGH(ssize_t, __real_write(fd, data, cut(len)));
}

ssize_t __real_pread(int fd, void *buf, size_t len, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t off)
{
    STRIKE(C_PREAD, armed);
    THROUGH(ssize_t, __real_pread(fd, buf, cut(len), off));
}

ssize_t __real_sendfile(int to, int from, off_t *off, size_t len);
ssize_t __wrap_sendfile(int to, int from, off_t *off, size_t len);
ssize_t __wrap_sendfile(int to, int from, off_t *off, size_t len)
{
    STRIKE(C_SENDFILE, is_stream(to));
    THROUGH(ssize_t, __real_sendfile(to, from, off, cut(len)));
}

ssize_t __real_recv(int s, void *buf, size_t len, int flags);
ssize_t __wrap_recv(int s, void *buf, size_t len, int flags);
ssize_t __wrap_recv(int s, void *buf, size_t len, int flags)
{
    STRIKE(C_RECV, is_stream(s));
    THROUGH(ssize_t, __real_recv(s, buf, cut(len), flags));
}

ssize_t __real_recvfrom(int s, void *buf, size_t len, int flags, struct sockaddr *a, socklen_t *n);
ssize_t __wrap_recvfrom(int s, void *buf, size_t len, int flags, struct sockaddr *a, socklen_t *n);
ssize_t __wrap_recvfrom(int s, void *buf, size_t len, int flags, struct sockaddr *a, socklen_t *n)
{
    STRIKE(C_RECV, is_stream(s));
    THROUGH(ssize_t, __real_recvfrom(s, buf, cut(len), flags, a, n));
}

ssize_t __real_send(int s, const void *data, size_t len, int flags);
ssize_t __wrap_send(int s, const void *data, size_t len, int flags);
ssize_t __wrap_send(int s, const void *data, size_t len, int flags)
{
    STRIKE(C_SEND, is_stream(s));
    THROUGH(ssize_t, __real_send(s, data, cut(len), flags));
}

ssize_t __real_sendto(int s, const void *data, size_t len, int flags, const struct sockaddr *a,
                      socklen_t n);
ssize_t __wrap_sendto(int s, const void *data, size_t len, int flags, const struct sockaddr *a,
                      socklen_t n);
ssize_t __wrap_sendto(int s, const void *data, size_t len, int flags, const struct sockaddr *a,
                      socklen_t n)
{
    STRIKE(C_SEND, is_stream(s));
    THROUGH(ssize_t, __real_sendto(s, data, cut(len), flags, a, n));
}

// The message with its pieces cut down; `room` holds them.
static struct msghdr cut_message(const struct msghdr *m, struct iovec room[64])
{
    struct msghdr out = *m;
    size_t sum = 0, count = (size_t)m->msg_iovlen;
    if (f.cut == WHOLE || count > 64) return out;
    for (size_t i = 0; i < count; i++) sum += m->msg_iov[i].iov_len;
    sum = cut(sum);
    for (size_t i = 0; i < count; i++) {
        room[i] = m->msg_iov[i];
        if (room[i].iov_len > sum) room[i].iov_len = sum;
        sum -= room[i].iov_len;
    }
    out.msg_iov = room;
    return out;
}

ssize_t __real_recvmsg(int s, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int s, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int s, struct msghdr *m, int flags)
{
    struct iovec room[64], *pieces = m->msg_iov;
    STRIKE(C_RECV, is_stream(s));
    *m = cut_message(m, room);
    bool was = armed;
    armed = false;
    ssize_t n = __real_recvmsg(s, m, flags);
    armed = was;
    m->msg_iov = pieces;
    return n;
}

ssize_t __real_sendmsg(int s, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int s, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int s, const struct msghdr *m, int flags)
{
    struct iovec room[64];
    STRIKE(C_SEND, is_stream(s));
    struct msghdr less = cut_message(m, room);
    THROUGH(ssize_t, __real_sendmsg(s, &less, flags));
}

#ifdef FAULT_SPLICE // the program has it in its list
ssize_t __real_splice(int from, loff_t *off, int to, loff_t *to_off, size_t len, unsigned flags);
ssize_t __wrap_splice(int from, loff_t *off, int to, loff_t *to_off, size_t len, unsigned flags);
ssize_t __wrap_splice(int from, loff_t *off, int to, loff_t *to_off, size_t len, unsigned flags)
{
    STRIKE(C_SPLICE, armed);
    THROUGH(ssize_t, __real_splice(from, off, to, to_off, cut(len), flags));
}
#endif

int __real_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    if (armed && f.storm & NO_THREAD) return EAGAIN;
    return __real_pthread_create(t, attr, run, arg);
}

//================================================================================================
// The story's calls, and the judge
//================================================================================================

// The first failure of a story, and whether the fault happened within the call that failed.
static struct {
    ptrdiff_t err;
    int os, at_line;
    bool by_fault, fault_known;
    int broken_line; // the story itself went wrong: bytes, events
} told;

static ptrdiff_t tell(ptrdiff_t r, int line)
{
    int os = netio_os_error();
    armed = false;
    if (r < 0 && !told.err) {
        told.err = r;
        told.os = os;
        told.at_line = line;
        told.by_fault = f.hit && !told.fault_known;
    }
    told.fault_known = f.hit;
    return r;
}

// A netio call of a story; TRY ends the story if it fails.
#define DO(call) (armed = true, tell((ptrdiff_t)(call), __LINE__))
#define TRY(call)                                                                                  \
    do {                                                                                           \
        if (DO(call) < 0) goto out;                                                                \
    } while (0)
// What failed for a passing reason must succeed when it is called again: nothing was half done.
#define TWICE(call)                                                                                \
    do {                                                                                           \
        if (DO(call) < 0 && DO(call) < 0) BROKEN();                                                \
    } while (0)
#define BROKEN()                                                                                   \
    do {                                                                                           \
        if (!told.broken_line) told.broken_line = __LINE__;                                        \
        goto out;                                                                                  \
    } while (0)
#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) BROKEN();                                                                     \
    } while (0)

typedef void (*story)(void);

static uint64_t open_set(void)
{
    uint64_t set = 0;
    for (int fd = 0; fd < 64; fd++)
        if (__real_fcntl(fd, F_GETFD, NULL) != -1) set |= 1ull << fd;
    return set;
}

static void describe(const char *why, int line)
{
    printf("    call %ld: %s, ", f.at, f.hit ? calls[f.call].name : "(none)");
    if (f.storm) printf("storm %u", f.storm);
    else if (f.err) printf("%s", strerror(f.err));
    else printf("%s", f.cut == ONE_BYTE ? "1 byte" : "half");
    printf("; story's first failure: %s at line %d, os %d\n", netio_errname(told.err), told.at_line,
           told.os);
    test_fail(__FILE__, line, "%s", why);
}

#define OUGHT(cond) ((cond) ? (void)0 : describe(#cond, __LINE__))

static bool has_name(ptrdiff_t err)
{
    return err == 0 || strcmp(netio_errname(err), netio_errname(-9999)) != 0;
}

static void on_hang(int number)
{
    (void)number;
    printf("    hangs: call %ld, %s, errno %d, storm %u, after %ld calls\n", f.at,
           calls[f.call].name, f.err, f.storm, f.seen);
    fflush(stdout);
    _exit(1);
}

static void play(story run, long at, int variant, unsigned storm)
{
    uint64_t before = open_set(), start = test_ms();
    long blocks = test_blocks();
    memset(&f, 0, sizeof f);
    memset(&told, 0, sizeof told);
    f.at = at;
    f.variant = variant;
    f.storm = storm;
    signal(SIGALRM, on_hang);
    alarm(20);
    run();
    armed = false;
    alarm(0);
    if (told.broken_line) printf("    the story went wrong at line %d\n", told.broken_line);
    OUGHT(!told.broken_line);
    OUGHT(has_name(told.err));
    OUGHT(test_ms() - start < 3000);
    if (getenv("NETIO_TEST_VERBOSE") && test_ms() - start > 100)
        printf("    %ld ms: call %ld, %s, %s, storm %u\n", (long)(test_ms() - start), at,
               calls[f.call].name, strerror(f.err), storm);
    if (open_set() != before)
        printf("    descriptors: %llx, %llx\n", (unsigned long long)before,
               (unsigned long long)open_set());
    OUGHT(open_set() == before);
    OUGHT(test_blocks() == blocks);
    OUGHT(!f.strange);
}

// Nothing of it may be seen: a signal, a part of the work, readiness that was none, a client that
// left before it was accepted, a kernel that lacks a newer call.
static bool must_not_show(void)
{
    if (f.err == 0 || f.err == EINTR || f.err == EAGAIN || f.err == ENOSYS) return true;
    if (f.call == C_CLOSE || f.call == C_FSTAT) return true;
    if (f.call == C_SENDFILE) return f.err == EINVAL;
    return f.call == C_ACCEPT &&
           (f.err == ECONNABORTED || f.err == EPROTO || f.err == EPERM || f.err == ENETDOWN);
}

static void every_call(story run)
{
    long runs = 0, kept = 0, n = 1;
    play(run, 0, 0, 0);
    OUGHT(told.err == 0);
    for (; n < 2000; n++) {
        for (int variant = 0;; variant++) {
            play(run, n, variant, 0);
            if (!f.hit) break;
            runs++;
            if (must_not_show()) OUGHT(told.err == 0);
            if (told.by_fault && told.err == netio_error_from_os(f.err)) {
                OUGHT(told.os == f.err);
                kept++;
            }
            if (getenv("NETIO_TEST_VERBOSE"))
                printf("    %ld %s %s: %s line %d os %d\n", n, calls[f.call].name, strerror(f.err),
                       netio_errname(told.err), told.at_line, told.os);
            if (f.last) break;
        }
        if (!f.hit) break;
    }
    printf("    %ld calls, %ld faults, %ld error codes kept\n", n - 1, runs, kept);
    CHECK(runs > 0 && kept > 0);

    for (unsigned storm = STORM_EINTR; storm <= (STORM_EINTR | STORM_SHORT); storm++) {
        play(run, 0, 0, storm);
        OUGHT(told.err == 0);
    }
}

static inline void every_allocation(story run)
{
    long n = 1;
    for (;; n++) {
        long before = test_allocs();
        test_alloc_fail_at(n);
        play(run, 0, 0, 0);
        test_alloc_fail_at(0);
        if (test_allocs() - before < n) break;
        OUGHT(told.err == NETIO_ENOMEM);
        CHECK(n < 100);
    }
    printf("    %ld allocations\n", n - 1);
    OUGHT(told.err == 0);
    CHECK(n > 1);
}

#endif // NETIO_TEST_FAULT_H
