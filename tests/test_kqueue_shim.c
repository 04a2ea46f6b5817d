// The kqueue() that the tests bring along for Linux, held against the manual pages of the BSDs and,
// where those leave room, against their kernels. What this program proves of it, the poller's tests
// over it may rely on. Built as kqueue.c is, once for each value of NETIO_TEST_KQUEUE_KEEP_ERROR.
#define _GNU_SOURCE
#include "test.h"

#include <sys/event.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef NETIO_TEST_KQUEUE_KEEP_ERROR
#define NETIO_TEST_KQUEUE_KEEP_ERROR 0
#endif

enum { SOON = 5000, BRIEFLY = 30 }; // what must come, and what must not: milliseconds

static int marks[8]; // their addresses serve as udata

// One change without looking for events: 0 or the errno.
static int change(int kq, int fd, int filter, unsigned flags, void *udata)
{
    struct kevent c;
    EV_SET(&c, fd, filter, flags, 0, 0, udata);
    return kevent(kq, &c, 1, NULL, 0, NULL) < 0 ? errno : 0;
}

static int look(int kq, struct kevent *out, int cap, int ms)
{
    struct timespec ts;
    ts.tv_sec = ms / 1000;
    ts.tv_nsec = ms % 1000 * 1000000L;
    memset(out, 0xEE, (size_t)cap * sizeof *out);
    return kevent(kq, NULL, 0, out, cap, &ts);
}

// Nothing now. Only for what the kernel decides at once.
static int is_quiet(int kq)
{
    struct kevent e;
    return look(kq, &e, 1, 0) == 0;
}

// The end may come in a later event than the data.
static void look_until_eof(int kq, struct kevent *out)
{
    uint64_t start = test_ms();
    do {
        CHECK_EQ(1, look(kq, out, 1, SOON));
    } while (!(out->flags & EV_EOF) && test_ms() - start < SOON);
    CHECK(out->flags & EV_EOF);
}

static void make_stream(int fd[2]) { CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0); }

static int listen_on(struct sockaddr_in *at)
{
    socklen_t len = sizeof *at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(at, 0, sizeof *at);
    at->sin_family = AF_INET;
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)at, sizeof *at) == 0);
    CHECK(listen(fd, 16) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)at, &len) == 0);
    return fd;
}

static int dial(const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    CHECK(connect(fd, (const struct sockaddr *)to, sizeof *to) == 0);
    return fd;
}

static void make_tcp(int fd[2])
{
    struct sockaddr_in at;
    int listener = listen_on(&at);
    fd[0] = dial(&at);
    fd[1] = accept(listener, NULL, NULL);
    CHECK(fd[1] >= 0);
    close(listener);
}

// Close so that the other side is reset.
static void reset(int fd)
{
    struct linger hard = {1, 0};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
    close(fd);
}

// A port of which it is known that nobody listens there.
static struct sockaddr_in refusing_address(void)
{
    struct sockaddr_in at;
    close(listen_on(&at));
    return at;
}

static int so_error(int fd)
{
    int value = -1;
    socklen_t len = sizeof value;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len) == 0);
    return value;
}

// A connect that was refused, with its EVFILT_WRITE knote, whose event has not been looked at.
static int refused(int kq)
{
    struct sockaddr_in to = refusing_address();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0);
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno == EINPROGRESS);
    CHECK_EQ(0, change(kq, fd, EVFILT_WRITE, EV_ADD, NULL));
    return fd;
}

static void ignore_signal(int number) { (void)number; }

//================================================================================================
// The queue itself
//================================================================================================

TEST(queue, is_closed_on_exec)
{
    int kq = kqueue();
    CHECK(kq >= 0);
    CHECK(fcntl(kq, F_GETFD) & FD_CLOEXEC);
    close(kq);
}

TEST(queue, close_leaves_no_descriptor_behind)
{
    int before = test_descriptors();
    for (int i = 0; i < 200; i++) {
        int kq = kqueue(), fd[2];
        CHECK(kq >= 0);
        make_stream(fd);
        CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
        if (i % 2) CHECK(close(kq) == 0);
        else CHECK(kqueue_shim_close(kq) == 0);
        close(fd[0]);
        close(fd[1]);
    }
    CHECK_EQ(before, test_descriptors());
}

TEST(queue, number_that_was_closed_unseen_is_recycled)
{
    int before = test_descriptors();
    int fd[2], kq = kqueue(), again;
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_WRITE, EV_ADD, NULL));
    CHECK(syscall(SYS_close, kq) == 0); // not through close()
    again = kqueue();
    CHECK_EQ(kq, again);
    CHECK(is_quiet(again)); // a new queue, without the old one's knotes
    close(again);
    close(fd[0]);
    close(fd[1]);
    CHECK_EQ(before, test_descriptors());
}

TEST(queue, kevent_on_no_queue_is_ebadf)
{
    int fd[2], kq = kqueue();
    make_stream(fd);
    close(kq);
    const int numbers[] = {-1, kq, fd[0], 1 << 20};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct kevent e;
        CHECK(look(numbers[i], &e, 1, 0) == -1);
        CHECK_EQ(EBADF, errno);
    }
    close(fd[0]);
    close(fd[1]);
}

TEST(queue, bad_arguments_are_einval)
{
    struct timespec zero = {0, 0}, negative = {-1, 0}, long_ns = {0, 1000000000}, low = {0, -1};
    const struct timespec *bad[] = {&negative, &long_ns, &low};
    int fd[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK(kevent(kq, NULL, -1, &e, 1, &zero) == -1 && errno == EINVAL);
    CHECK(kevent(kq, NULL, 0, &e, -1, &zero) == -1 && errno == EINVAL);
    for (size_t i = 0; i < 3; i++)
        CHECK(kevent(kq, NULL, 0, &e, 1, bad[i]) == -1 && errno == EINVAL);
    CHECK_EQ(EINVAL, change(kq, fd[0], -99, EV_ADD, NULL));
    CHECK_EQ(EINVAL, change(kq, fd[0], 1, EV_ADD, NULL));
    CHECK_EQ(EINVAL, change(kq, kq, EVFILT_READ, EV_ADD, NULL)); // itself
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(queue, is_readable_while_an_event_waits)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    struct pollfd p = {kq, POLLIN, 0};
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(0, poll(&p, 1, 0));
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(1, poll(&p, 1, SOON));
    CHECK_EQ(1, look(kq, &e, 1, 0));
    CHECK_EQ(1, read(fd[0], &e, 1));
    CHECK(is_quiet(kq));
    CHECK_EQ(0, poll(&p, 1, 0));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(queue, nests_in_another_queue)
{
    int fd[2], outer = kqueue(), inner = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(0, change(inner, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(0, change(outer, inner, EVFILT_READ, EV_ADD, &marks[1]));
    CHECK(is_quiet(outer));
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(1, look(outer, &e, 1, SOON));
    CHECK(e.ident == (uintptr_t)inner && e.udata == &marks[1]);
    CHECK(e.data >= 1);
    close(inner);
    CHECK(is_quiet(outer));
    close(outer);
    close(fd[0]);
    close(fd[1]);
}

TEST(queue, is_not_inherited_by_fork)
{
    int fd[2], status = 0, kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, &marks[0]));
    pid_t child = fork();
    if (child == 0) {
        bool ok = look(kq, &e, 1, 0) == -1 && errno == EBADF && close(kq) == -1;
        close(fd[0]); // the child's: the parent's knote stays
        _exit(ok ? 0 : 1);
    }
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.udata == &marks[0]);
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

//================================================================================================
// Waiting
//================================================================================================

TEST(wait, lasts_as_long_as_the_timeout)
{
    int kq = kqueue();
    struct kevent e;
    uint64_t start = test_ms();
    CHECK_EQ(0, look(kq, &e, 1, 0));
    CHECK_EQ(0, look(kq, &e, 1, 60));
    CHECK_BETWEEN(59, SOON, test_ms() - start); // the two clocks may cut differently
    close(kq);
}

TEST(wait, without_room_returns_at_once)
{
    int kq = kqueue();
    CHECK_EQ(0, kevent(kq, NULL, 0, NULL, 0, NULL)); // for ever, if it waited
    close(kq);
}

typedef struct helper {
    int kq, fd, result, error;
    int stop;
    pthread_t thread;
} helper;

static void write_later(void *arg)
{
    test_sleep_ms(20);
    ((helper *)arg)->result = (int)write(((helper *)arg)->fd, "x", 1);
}

TEST(wait, without_timeout_lasts_until_an_event)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    test_thread t;
    make_stream(fd);
    helper h = {.fd = fd[1]};
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    test_thread_start(&t, write_later, &h);
    CHECK_EQ(1, kevent(kq, NULL, 0, &e, 1, NULL));
    test_thread_join(&t);
    CHECK_EQ(1, h.result);
    CHECK_EQ(fd[0], e.ident);
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

// More than one signal, as the first may come before the wait has begun.
static void signal_until_told(void *arg)
{
    helper *h = (helper *)arg;
    do {
        test_sleep_ms(10);
        h->result = pthread_kill(h->thread, SIGUSR1);
    } while (!__atomic_load_n(&h->stop, __ATOMIC_ACQUIRE) && h->result == 0);
}

TEST(wait, is_interrupted_by_a_signal_after_its_changes)
{
    struct sigaction action, before;
    int fd[2], kq = kqueue(), result, error;
    struct kevent c, e;
    test_thread t;
    make_stream(fd);
    memset(&action, 0, sizeof action);
    action.sa_handler = ignore_signal;
    action.sa_flags = SA_RESTART; // kevent() is never restarted
    CHECK(sigaction(SIGUSR1, &action, &before) == 0);
    helper h = {.thread = pthread_self()};
    EV_SET(&c, fd[0], EVFILT_READ, EV_ADD, 0, 0, &marks[2]);
    test_thread_start(&t, signal_until_told, &h);
    result = kevent(kq, &c, 1, &e, 1, NULL);
    error = errno;
    __atomic_store_n(&h.stop, 1, __ATOMIC_RELEASE);
    test_thread_join(&t);
    sigaction(SIGUSR1, &before, NULL);
    CHECK_EQ(-1, result);
    CHECK_EQ(EINTR, error);
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(1, look(kq, &e, 1, SOON)); // the change was made
    CHECK(e.udata == &marks[2]);
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

static void wait_for_ever(void *arg)
{
    helper *h = (helper *)arg;
    struct kevent e;
    h->result = kevent(h->kq, NULL, 0, &e, 1, NULL);
    h->error = errno;
}

TEST(wait, ends_when_the_queue_is_closed)
{
    helper h = {.kq = kqueue()};
    test_thread t;
    test_thread_start(&t, wait_for_ever, &h);
    test_sleep_ms(20); // most likely it waits by now; if not, it says EBADF for another reason
    close(h.kq);
    test_thread_join(&t);
    CHECK_EQ(-1, h.result);
    CHECK_EQ(EBADF, h.error);
}

TEST(wait, applies_changes_before_it_looks)
{
    int fd[2], kq = kqueue();
    struct kevent c, e;
    struct timespec zero = {0, 0};
    make_stream(fd);
    CHECK_EQ(3, write(fd[1], "abc", 3));
    EV_SET(&c, fd[0], EVFILT_READ, EV_ADD, 0, 0, &marks[3]);
    CHECK_EQ(1, kevent(kq, &c, 1, &e, 1, &zero));
    CHECK(e.udata == &marks[3] && e.data == 3);
    EV_SET(&c, fd[0], EVFILT_READ, EV_DELETE, 0, 0, NULL);
    CHECK_EQ(0, kevent(kq, &c, 1, &e, 1, &zero));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(wait, fills_256_entries_in_one_call)
{
    enum { PAIRS = 200 };
    static struct kevent events[256];
    int fd[PAIRS][2], kq = kqueue();
    bool seen[PAIRS] = {false};
    for (int i = 0; i < PAIRS; i++) {
        make_stream(fd[i]);
        CHECK_EQ(1, write(fd[i][1], "x", 1));
        CHECK_EQ(0, change(kq, fd[i][0], EVFILT_READ, EV_ADD, &seen[i]));
    }
    for (int i = 0; i < 50; i++) CHECK_EQ(0, change(kq, fd[i][0], EVFILT_WRITE, EV_ADD, NULL));
    CHECK_EQ(250, look(kq, events, 256, SOON));
    for (int i = 0; i < 250; i++)
        if (events[i].filter == EVFILT_READ) *(bool *)events[i].udata = true;
    for (int i = 0; i < PAIRS; i++) {
        CHECK(seen[i]);
        close(fd[i][0]);
        close(fd[i][1]);
    }
    close(kq);
}

TEST(wait, with_little_room_starves_nobody)
{
    int fd[8][2], kq = kqueue();
    int reads[8] = {0}, writes[8] = {0};
    for (int i = 0; i < 8; i++) {
        make_stream(fd[i]);
        CHECK_EQ(1, write(fd[i][1], "x", 1));
        CHECK_EQ(0, change(kq, fd[i][0], EVFILT_READ, EV_ADD, &reads[i]));
        CHECK_EQ(0, change(kq, fd[i][0], EVFILT_WRITE, EV_ADD, &writes[i]));
    }
    for (int i = 0; i < 64; i++) {
        struct kevent e;
        CHECK_EQ(1, look(kq, &e, 1, SOON));
        ++*(int *)e.udata;
    }
    for (int i = 0; i < 8; i++) {
        CHECK_BETWEEN(2, 8, reads[i]);
        CHECK_BETWEEN(2, 8, writes[i]);
        close(fd[i][0]);
        close(fd[i][1]);
    }
    close(kq);
}

//================================================================================================
// Flags
//================================================================================================

TEST(flags, level_repeats_until_drained)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    char buf[8];
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, &marks[0]));
    CHECK(is_quiet(kq));
    CHECK_EQ(5, write(fd[1], "hello", 5));
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(1, look(kq, &e, 1, SOON));
        CHECK(e.ident == (uintptr_t)fd[0] && e.filter == EVFILT_READ && e.udata == &marks[0]);
        CHECK(e.data == 5 && e.fflags == 0 && !(e.flags & (EV_EOF | EV_ERROR)));
    }
    CHECK_EQ(2, read(fd[0], buf, 2));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(3, e.data);
    CHECK_EQ(3, read(fd[0], buf, 8));
    CHECK(is_quiet(kq));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(flags, clear_reports_each_arrival_once)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    char buf[8];
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL));
    CHECK_EQ(2, write(fd[1], "ab", 2));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.data == 2 && (e.flags & EV_CLEAR));
    CHECK(is_quiet(kq)); // although it was not read
    CHECK_EQ(1, write(fd[1], "c", 1));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(3, e.data);
    CHECK_EQ(1, write(fd[1], "d", 1));
    CHECK_EQ(4, read(fd[0], buf, 8));
    CHECK(is_quiet(kq)); // the filter runs again when the event is fetched
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(flags, clear_write_reports_new_room_once)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    static char block[65536];
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(is_quiet(kq));
    while (send(fd[0], block, sizeof block, MSG_DONTWAIT) > 0) {}
    CHECK_EQ(EAGAIN, errno);
    CHECK(is_quiet(kq));
    while (recv(fd[1], block, sizeof block, MSG_DONTWAIT) > 0) {}
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.data > 0);
    CHECK(is_quiet(kq));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(flags, oneshot_deletes_the_knote)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_ONESHOT, NULL));
    CHECK(is_quiet(kq));
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(is_quiet(kq));
    CHECK_EQ(ENOENT, change(kq, fd[0], EVFILT_READ, EV_ENABLE, NULL));
    CHECK_EQ(ENOENT, change(kq, fd[0], EVFILT_READ, EV_DELETE, NULL));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_ONESHOT, &marks[4]));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.udata == &marks[4]);
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(flags, dispatch_disables_until_enable)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_DISPATCH, NULL));
    CHECK_EQ(1, write(fd[1], "x", 1));
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(1, look(kq, &e, 1, SOON));
        CHECK(is_quiet(kq));
        CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ENABLE, &marks[0]));
    }
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK(is_quiet(kq)); // in no kernel does EV_ADD alone enable it, whatever the pages say
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_ENABLE, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_DELETE, NULL)); // it is disabled, but there
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(flags, disable_hides_and_enable_shows)
{
    const unsigned kinds[] = {0, EV_CLEAR};
    for (size_t i = 0; i < 2; i++) {
        int fd[2], kq = kqueue();
        struct kevent e;
        make_stream(fd);
        CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | kinds[i], NULL));
        CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_DISABLE, NULL));
        CHECK_EQ(1, write(fd[1], "x", 1)); // the filter itself goes on
        CHECK(is_quiet(kq));
        CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ENABLE, &marks[5]));
        CHECK_EQ(1, look(kq, &e, 1, SOON));
        CHECK(e.udata == &marks[5]);
        close(kq);
        close(fd[0]);
        close(fd[1]);
    }
}

TEST(flags, disabled_knote_ignores_a_hang_up)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    uint64_t cpu;
    make_tcp(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_DISABLE, NULL));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_WRITE, EV_ADD | EV_DISABLE, NULL));
    reset(fd[1]);
    cpu = test_cpu_ms();
    CHECK_EQ(0, look(kq, &e, 1, 100));
    CHECK_BETWEEN(0, 50, test_cpu_ms() - cpu); // it slept
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ENABLE, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.flags & EV_EOF);
    close(kq);
    close(fd[0]);
}

TEST(flags, add_again_replaces_udata_in_one_knote)
{
    int fd[2], kq = kqueue();
    struct kevent e[4];
    make_stream(fd);
    CHECK_EQ(1, write(fd[1], "x", 1));
    for (int i = 0; i < 3; i++) CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, &marks[i]));
    CHECK_EQ(1, look(kq, e, 4, SOON));
    CHECK(e[0].udata == &marks[2]);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ENABLE, &marks[6])); // as FreeBSD does
    CHECK_EQ(1, look(kq, e, 4, SOON));
    CHECK(e[0].udata == &marks[6]);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_DELETE, NULL));
    CHECK(is_quiet(kq));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(flags, add_again_keeps_the_first_kind)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_CLEAR | EV_ONESHOT, NULL));
    for (int i = 0; i < 3; i++) CHECK_EQ(1, look(kq, &e, 1, SOON)); // level as before
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_DELETE, NULL));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(is_quiet(kq)); // edge as before
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(flags, any_change_looks_at_the_state_again)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(is_quiet(kq));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, &marks[1]));
    CHECK_EQ(1, look(kq, &e, 1, SOON)); // the condition still holds
    CHECK(is_quiet(kq));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(flags, two_filters_are_two_entries)
{
    int fd[2], kq = kqueue();
    struct kevent e[4], c[2];
    make_stream(fd);
    CHECK_EQ(1, write(fd[1], "x", 1));
    EV_SET(&c[0], fd[0], EVFILT_READ, EV_ADD, 0, 0, &marks[0]);
    EV_SET(&c[1], fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, &marks[1]);
    CHECK_EQ(0, kevent(kq, c, 2, NULL, 0, NULL));
    CHECK_EQ(2, look(kq, e, 4, SOON));
    CHECK(e[0].ident == (uintptr_t)fd[0] && e[1].ident == (uintptr_t)fd[0]);
    CHECK_EQ(EVFILT_READ + EVFILT_WRITE, e[0].filter + e[1].filter);
    CHECK(e[0].udata == (e[0].filter == EVFILT_READ ? &marks[0] : &marks[1]));
    CHECK(e[1].udata == (e[1].filter == EVFILT_READ ? &marks[0] : &marks[1]));
    CHECK_EQ(1, look(kq, e, 4, SOON)); // each has its own flags
    CHECK_EQ(EVFILT_READ, e[0].filter);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_DELETE, NULL));
    CHECK(is_quiet(kq));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_WRITE, EV_DELETE, NULL));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

//================================================================================================
// Errors and receipts
//================================================================================================

TEST(error, unknown_knote_is_enoent)
{
    const unsigned actions[] = {EV_DELETE, EV_ENABLE, EV_DISABLE, 0};
    int fd[2], kq = kqueue();
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL)); // the other filter does not count
    for (size_t i = 0; i < 4; i++) {
        CHECK_EQ(ENOENT, change(kq, fd[0], EVFILT_WRITE, actions[i], NULL));
        CHECK_EQ(ENOENT, change(kq, fd[1], EVFILT_READ, actions[i], NULL));
        CHECK_EQ(ENOENT, change(kq, 7, EVFILT_USER, actions[i], NULL));
    }
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(error, closed_descriptor_is_ebadf)
{
    const unsigned actions[] = {EV_ADD, EV_DELETE, EV_ENABLE, EV_DISABLE};
    int fd[2], kq = kqueue();
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    close(fd[0]);
    for (size_t i = 0; i < 4; i++) {
        CHECK_EQ(EBADF, change(kq, fd[0], EVFILT_READ, actions[i], NULL));
        CHECK_EQ(EBADF, change(kq, -1, EVFILT_READ, actions[i], NULL));
    }
    close(kq);
    close(fd[1]);
}

TEST(error, lies_in_the_eventlist_if_there_is_room)
{
    int fd[2], kq = kqueue();
    struct kevent c[3], e[4];
    struct timespec zero = {0, 0};
    make_stream(fd);
    CHECK_EQ(1, write(fd[1], "x", 1));
    EV_SET(&c[0], fd[0], EVFILT_WRITE, EV_DELETE, 0, 0, &marks[0]);
    EV_SET(&c[1], fd[0], EVFILT_READ, EV_ADD, 0, 0, &marks[1]);
    EV_SET(&c[2], -1, EVFILT_READ, EV_ADD, 0, 0, &marks[2]);
    CHECK_EQ(2, kevent(kq, c, 3, e, 4, &zero)); // errors only; the event waits for the next call
    CHECK(e[0].flags & EV_ERROR);
    CHECK(e[0].ident == (uintptr_t)fd[0] && e[0].filter == EVFILT_WRITE && e[0].udata == &marks[0]);
    CHECK_EQ(ENOENT, e[0].data);
    CHECK((e[1].flags & EV_ERROR) && e[1].udata == &marks[2]);
    CHECK_EQ(EBADF, e[1].data);
    CHECK_EQ(1, look(kq, e, 4, SOON));
    CHECK(e[0].udata == &marks[1] && !(e[0].flags & EV_ERROR));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(error, without_room_fails_the_call)
{
    int fd[2], kq = kqueue();
    struct kevent c[2], e;
    make_stream(fd);
    EV_SET(&c[0], fd[0], EVFILT_WRITE, EV_DELETE, 0, 0, NULL);
    EV_SET(&c[1], -1, EVFILT_READ, EV_ADD, 0, 0, NULL);
    CHECK(kevent(kq, c, 1, NULL, 0, NULL) == -1 && errno == ENOENT);
    CHECK(kevent(kq, c, 2, &e, 1, NULL) == -1 && errno == EBADF); // room for one of two
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(error, receipts_report_success_and_drain_nothing)
{
    int fd[2], kq = kqueue();
    struct kevent list[2]; // changes and events may share an array
    make_stream(fd);
    CHECK_EQ(1, write(fd[1], "x", 1));
    EV_SET(&list[0], fd[0], EVFILT_READ, EV_ADD | EV_RECEIPT, 0, 0, &marks[0]);
    EV_SET(&list[1], fd[0], EVFILT_WRITE, EV_DELETE | EV_RECEIPT, 0, 0, &marks[1]);
    CHECK_EQ(2, kevent(kq, list, 2, list, 2, NULL)); // does not wait either
    CHECK((list[0].flags & EV_ERROR) && list[0].data == 0 && list[0].udata == &marks[0]);
    CHECK((list[1].flags & EV_ERROR) && list[1].data == ENOENT && list[1].udata == &marks[1]);
    CHECK_EQ(1, look(kq, list, 2, SOON));
    CHECK(list[0].udata == &marks[0] && !(list[0].flags & EV_ERROR));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(error, receipt_without_room_stops_the_changes)
{
    int fd[2], kq = kqueue();
    struct kevent c[3], e;
    make_stream(fd);
    EV_SET(&c[0], fd[0], EVFILT_READ, EV_ADD | EV_RECEIPT, 0, 0, NULL);
    EV_SET(&c[1], fd[1], EVFILT_READ, EV_ADD | EV_RECEIPT, 0, 0, NULL);
    EV_SET(&c[2], fd[1], EVFILT_WRITE, EV_ADD, 0, 0, NULL);
    CHECK_EQ(1, kevent(kq, c, 3, &e, 1, NULL));
    CHECK_EQ(ENOENT, change(kq, fd[1], EVFILT_WRITE, EV_DELETE, NULL)); // was not reached
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

//================================================================================================
// Descriptors that end
//================================================================================================

TEST(close, removes_the_knotes)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_WRITE, EV_ADD, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    close(fd[0]);
    CHECK(is_quiet(kq));
    close(kq);
    close(fd[1]);
}

TEST(close, removes_the_knotes_of_a_duplicated_socket)
{
    int fd[2], other, kq = kqueue();
    struct kevent e;
    make_stream(fd);
    other = dup(fd[0]);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    close(fd[0]); // epoll alone would go on reporting it
    CHECK(is_quiet(kq));
    CHECK_EQ(0, change(kq, other, EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(other, e.ident);
    close(kq);
    close(other);
    close(fd[1]);
}

TEST(close, reused_number_starts_anew)
{
    int fd[2], next[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, &marks[0]));
    close(fd[0]);
    close(fd[1]);
    make_stream(next);
    CHECK_EQ(fd[0], next[0]);
    CHECK_EQ(ENOENT, change(kq, next[0], EVFILT_READ, EV_ENABLE, NULL));
    CHECK_EQ(0, change(kq, next[0], EVFILT_READ, EV_ADD, &marks[1]));
    CHECK_EQ(1, write(next[1], "x", 1));
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(1, look(kq, &e, 1, SOON)); // level: the old knote's EV_CLEAR is gone
        CHECK(e.udata == &marks[1]);
    }
    close(kq);
    close(next[0]);
    close(next[1]);
}

TEST(close, by_dup2_shows_as_enoent)
{
    const unsigned actions[] = {EV_DELETE, EV_ENABLE, EV_DISABLE};
    for (size_t i = 0; i < 3; i++) {
        int fd[2], next[2], kq = kqueue();
        struct kevent e;
        make_stream(fd);
        make_stream(next);
        CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_DISABLE, &marks[0]));
        CHECK_EQ(fd[0], dup2(next[0], fd[0])); // nobody was told
        CHECK_EQ(ENOENT, change(kq, fd[0], EVFILT_READ, actions[i], NULL));
        CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, &marks[1]));
        CHECK_EQ(1, write(next[1], "x", 1));
        CHECK_EQ(1, look(kq, &e, 1, SOON));
        CHECK(e.udata == &marks[1]);
        close(kq);
        close(fd[0]);
        close(fd[1]);
        close(next[0]);
        close(next[1]);
    }
}

TEST(close, does_not_reach_other_queues_or_numbers)
{
    int fd[2], one = kqueue(), two = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(0, change(one, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(0, change(two, fd[0], EVFILT_READ, EV_ADD, &marks[2]));
    CHECK_EQ(1, write(fd[1], "x", 1));
    close(one);
    CHECK_EQ(1, look(two, &e, 1, SOON));
    CHECK(e.udata == &marks[2]);
    close(two);
    close(fd[0]);
    close(fd[1]);
}

//================================================================================================
// EVFILT_READ and EVFILT_WRITE
//================================================================================================

TEST(read, half_close_is_eof_with_the_remaining_data)
{
    int fd[2], kq = kqueue();
    struct kevent e[2];
    char buf[8];
    make_tcp(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(5, write(fd[1], "hello", 5));
    CHECK(shutdown(fd[1], SHUT_WR) == 0);
    look_until_eof(kq, e);
    CHECK_EQ(5, e[0].data);
    CHECK_EQ(0, e[0].fflags);
    CHECK_EQ(5, read(fd[0], buf, 8));
    CHECK_EQ(1, look(kq, e, 2, SOON));
    CHECK((e[0].flags & EV_EOF) && e[0].data == 0);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_WRITE, EV_ADD, NULL));
    CHECK_EQ(2, look(kq, e, 2, SOON));
    for (int i = 0; i < 2; i++) // the way out is open
        CHECK_EQ(e[i].filter == EVFILT_READ ? EV_EOF : 0, e[i].flags & EV_EOF);
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(read, end_with_data_comes_once_with_clear)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD | EV_CLEAR, NULL));
    CHECK_EQ(3, write(fd[1], "abc", 3));
    close(fd[1]);
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK((e.flags & EV_EOF) && e.data == 3);
    CHECK(is_quiet(kq));
    close(kq);
    close(fd[0]);
}

TEST(read, reset_shows_its_error_once)
{
    for (int way = 0; way < 3; way++) {
        int fd[2], kq = kqueue();
        struct kevent e;
        struct iovec iov;
        char buf[8];
        make_tcp(fd);
        CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
        reset(fd[1]);
        for (int i = 0; i < 3; i++) { // looking at it changes nothing
            CHECK_EQ(1, look(kq, &e, 1, SOON));
            CHECK(e.flags & EV_EOF);
            CHECK_EQ(NETIO_TEST_KQUEUE_KEEP_ERROR ? 0 : ECONNRESET, e.fflags);
        }
        iov.iov_base = buf;
        iov.iov_len = sizeof buf;
        errno = 0;
        if (way == 0) CHECK_EQ(-1, recv(fd[0], buf, sizeof buf, 0));
        if (way == 1) CHECK_EQ(-1, send(fd[0], "x", 1, MSG_NOSIGNAL));
        if (way == 2) CHECK_EQ(ECONNRESET, so_error(fd[0]));
        CHECK_EQ(way == 2 ? 0 : ECONNRESET, errno);
        CHECK_EQ(1, look(kq, &e, 1, SOON));
        CHECK((e.flags & EV_EOF) && e.fflags == 0);
        CHECK_EQ(0, readv(fd[0], &iov, 1)); // taken: now it is a plain end
        close(kq);
        close(fd[0]);
    }
}

TEST(read, data_before_a_reset_is_not_lost)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    char buf[8];
    make_tcp(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(3, send(fd[1], "abc", 3, 0));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    reset(fd[1]);
    look_until_eof(kq, &e);
    CHECK_EQ(3, e.data);
    CHECK_EQ(3, recv(fd[0], buf, sizeof buf, 0));
    CHECK(recv(fd[0], buf, sizeof buf, 0) == -1 && errno == ECONNRESET);
    close(kq);
    close(fd[0]);
}

TEST(read, listener_tells_its_backlog)
{
    if (test_under("qemu")) SKIP("no TCP_INFO, where the shim finds it");
    struct sockaddr_in at;
    int kq = kqueue(), listener = listen_on(&at), client[3], server;
    struct kevent e;
    CHECK_EQ(0, change(kq, listener, EVFILT_READ, EV_ADD, NULL));
    CHECK(is_quiet(kq));
    for (int i = 0; i < 3; i++) {
        uint64_t start = test_ms();
        client[i] = dial(&at);
        do { // connect() returns before the last ACK is there
            CHECK_EQ(1, look(kq, &e, 1, SOON));
        } while (e.data < i + 1 && test_ms() - start < SOON);
        CHECK_EQ(i + 1, e.data);
        CHECK(!(e.flags & EV_EOF));
    }
    server = accept(listener, NULL, NULL);
    CHECK(server >= 0);
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(2, e.data);
    for (int i = 0; i < 3; i++) close(client[i]);
    close(server);
    close(listener);
    close(kq);
}

TEST(read, unix_listener_is_readable)
{
    struct sockaddr_un at;
    int kq = kqueue(), listener = socket(AF_UNIX, SOCK_STREAM, 0), client;
    struct kevent e;
    memset(&at, 0, sizeof at);
    at.sun_family = AF_UNIX;
    snprintf(at.sun_path, sizeof at.sun_path, "%s", test_path("kq"));
    CHECK(bind(listener, (struct sockaddr *)&at, sizeof at) == 0);
    CHECK(listen(listener, 4) == 0);
    CHECK_EQ(0, change(kq, listener, EVFILT_READ, EV_ADD, NULL));
    CHECK(is_quiet(kq));
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&at, sizeof at) == 0);
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(1, e.data);
    close(client);
    close(listener);
    close(kq);
}

TEST(read, datagram_error_is_no_eof)
{
    struct sockaddr_in to = refusing_address();
    int kq = kqueue(), fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct kevent e;
    char buf[8];
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    CHECK_EQ(0, change(kq, fd, EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(1, send(fd, "x", 1, 0));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(!(e.flags & EV_EOF) && e.fflags == 0);
    CHECK(recv(fd, buf, sizeof buf, 0) == -1 && errno == ECONNREFUSED);
    CHECK(is_quiet(kq));
    close(fd);
    close(kq);
}

TEST(read, empty_datagram_is_an_event)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    char buf[8];
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd) == 0);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(0, send(fd[1], "", 0, 0));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(!(e.flags & EV_EOF));
    CHECK_EQ(0, recv(fd[0], buf, sizeof buf, 0));
    CHECK(is_quiet(kq));
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(read, pipe_ends_with_its_writer)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    char buf[8];
    CHECK(pipe(fd) == 0);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, NULL));
    CHECK_EQ(4, write(fd[1], "abcd", 4));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.data == 4 && !(e.flags & EV_EOF));
    close(fd[1]);
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.data == 4 && (e.flags & EV_EOF));
    CHECK_EQ(4, read(fd[0], buf, 8));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.data == 0 && (e.flags & EV_EOF));
    close(kq);
    close(fd[0]);
}

TEST(read, file_is_readable_until_its_end)
{
    int kq = kqueue(), fd = open(test_path("kq-file"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct kevent e;
    char buf[16];
    CHECK(fd >= 0);
    CHECK_EQ(10, write(fd, "0123456789", 10));
    CHECK_EQ(0, change(kq, fd, EVFILT_READ, EV_ADD, &marks[1]));
    CHECK_EQ(0, look(kq, &e, 1, BRIEFLY)); // it stands at the end
    CHECK_EQ(4, lseek(fd, 4, SEEK_SET));
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(1, look(kq, &e, 1, SOON));
        CHECK(e.data == 6 && e.udata == &marks[1] && e.filter == EVFILT_READ);
    }
    CHECK_EQ(6, read(fd, buf, 16));
    CHECK(is_quiet(kq));
    CHECK_EQ(3, pwrite(fd, "abc", 3, 10)); // it grows
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(3, e.data);
    CHECK_EQ(0, change(kq, fd, EVFILT_WRITE, EV_ADD | EV_ONESHOT, NULL));
    CHECK_EQ(0, change(kq, fd, EVFILT_READ, EV_DELETE, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(EVFILT_WRITE, e.filter);
    CHECK(is_quiet(kq));
    CHECK_EQ(0, change(kq, fd, EVFILT_READ, EV_ADD, NULL));
    close(fd);
    CHECK(is_quiet(kq));
    close(kq);
}

TEST(read, any_descriptor_number)
{
    int fd[2], high = 900, kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(high, fcntl(fd[0], F_DUPFD, high));
    CHECK_EQ(0, change(kq, high, EVFILT_READ, EV_ADD, &marks[7]));
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.ident == 900 && e.udata == &marks[7]);
    close(high);
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(write, data_is_the_room_left)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    static char block[4096];
    int64_t empty;
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_WRITE, EV_ADD, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.data > 0 && !(e.flags & EV_EOF));
    empty = e.data;
    CHECK_EQ(4096, send(fd[0], block, sizeof block, 0));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_BETWEEN(1, empty - 4096, e.data);
    while (send(fd[0], block, sizeof block, MSG_DONTWAIT) > 0) {}
    CHECK(is_quiet(kq));
    while (recv(fd[1], block, sizeof block, MSG_DONTWAIT) > 0) {}
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(empty, e.data);
    close(kq);
    close(fd[0]);
    close(fd[1]);
}

TEST(write, peer_gone_is_eof)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    make_stream(fd);
    CHECK_EQ(0, change(kq, fd[0], EVFILT_WRITE, EV_ADD, NULL));
    close(fd[1]);
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(EVFILT_WRITE, e.filter);
    CHECK(e.flags & EV_EOF);
    CHECK(send(fd[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    close(kq);
    close(fd[0]);
}

TEST(write, pipe_without_reader_is_eof)
{
    int fd[2], kq = kqueue();
    struct kevent e;
    CHECK(pipe(fd) == 0);
    CHECK_EQ(0, change(kq, fd[1], EVFILT_WRITE, EV_ADD, NULL));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.data >= 4096 && !(e.flags & EV_EOF));
    close(fd[0]);
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK((e.flags & EV_EOF) && e.fflags == 0);
    close(kq);
    close(fd[1]);
}

TEST(write, refused_connect_is_eof_with_its_error)
{
    int kq = kqueue(), fd = refused(kq);
    struct kevent e;
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.ident == (uintptr_t)fd && e.filter == EVFILT_WRITE && (e.flags & EV_EOF));
    CHECK_EQ(NETIO_TEST_KQUEUE_KEEP_ERROR ? 0 : ECONNREFUSED, e.fflags);
    CHECK_EQ(ECONNREFUSED, so_error(fd));
    CHECK_EQ(0, so_error(fd)); // it is told once
    close(fd);
    close(kq);
}

TEST(write, error_does_not_outlive_its_descriptor)
{
    int kq = kqueue(), fd = refused(kq), next;
    struct kevent e;
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    close(fd);
    next = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(fd, next);
    CHECK_EQ(0, so_error(next));
    close(next);
    close(kq);
}

TEST(write, unconnected_stream_is_silent_until_it_connects)
{
    const int families[] = {AF_INET, AF_UNIX};
    for (size_t i = 0; i < 2; i++) {
        int kq = kqueue(), fd = socket(families[i], SOCK_STREAM, 0);
        struct kevent e[2];
        uint64_t cpu = test_cpu_ms();
        CHECK_EQ(0, change(kq, fd, EVFILT_READ, EV_ADD, NULL));
        CHECK_EQ(0, change(kq, fd, EVFILT_WRITE, EV_ADD, NULL));
        CHECK_EQ(0, look(kq, e, 2, 100));
        CHECK_BETWEEN(0, 50, test_cpu_ms() - cpu); // it slept
        if (families[i] == AF_INET) {
            struct sockaddr_in at;
            int listener = listen_on(&at);
            CHECK(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
            for (int k = 0; k < 2; k++) { // level again
                CHECK_EQ(1, look(kq, e, 2, SOON));
                CHECK_EQ(EVFILT_WRITE, e[0].filter);
                CHECK(!(e[0].flags & EV_EOF));
            }
            close(listener);
        }
        close(fd);
        close(kq);
    }
}

TEST(write, connect_completes_with_an_event)
{
    struct sockaddr_in at;
    int kq = kqueue(), listener = listen_on(&at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct kevent c, e;
    struct timespec wait = {5, 0};
    CHECK(connect(fd, (struct sockaddr *)&at, sizeof at) == 0 || errno == EINPROGRESS);
    EV_SET(&c, fd, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, 0, NULL);
    CHECK_EQ(1, kevent(kq, &c, 1, &e, 1, &wait));
    CHECK(e.filter == EVFILT_WRITE && !(e.flags & EV_EOF));
    CHECK_EQ(0, so_error(fd));
    close(fd);
    close(listener);
    close(kq);
}

//================================================================================================
// EVFILT_USER, threads
//================================================================================================

static int user_change(int kq, unsigned ident, unsigned flags, unsigned fflags)
{
    struct kevent c;
    EV_SET(&c, ident, EVFILT_USER, flags, fflags, 0, &marks[ident]);
    return kevent(kq, &c, 1, NULL, 0, NULL) < 0 ? errno : 0;
}

TEST(user, trigger_with_clear_reports_once)
{
    int kq = kqueue();
    struct kevent e;
    CHECK_EQ(0, user_change(kq, 1, EV_ADD | EV_CLEAR, 0));
    CHECK(is_quiet(kq));
    CHECK_EQ(0, user_change(kq, 1, 0, NOTE_TRIGGER));
    CHECK_EQ(0, user_change(kq, 1, 0, NOTE_TRIGGER)); // two triggers are one event
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK(e.ident == 1 && e.filter == EVFILT_USER && e.udata == &marks[1]);
    CHECK(is_quiet(kq));
    close(kq);
}

TEST(user, trigger_without_clear_stays)
{
    int kq = kqueue();
    struct kevent e;
    CHECK_EQ(0, user_change(kq, 2, EV_ADD, 0));
    CHECK_EQ(0, user_change(kq, 2, 0, NOTE_TRIGGER));
    for (int i = 0; i < 2; i++) CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(0, user_change(kq, 2, EV_DISABLE, 0));
    CHECK_EQ(0, look(kq, &e, 1, BRIEFLY));
    CHECK_EQ(0, user_change(kq, 2, EV_ENABLE, 0));
    CHECK_EQ(1, look(kq, &e, 1, SOON));
    CHECK_EQ(0, user_change(kq, 2, EV_CLEAR, 0)); // resets it
    CHECK(is_quiet(kq));
    close(kq);
}

TEST(user, fflags_follow_their_operators)
{
    // clang-format off
    static const struct { unsigned change, want; } steps[] = {
        {NOTE_FFCOPY | 0x0f, 0x0f}, {NOTE_FFOR | 0xf0, 0xff}, {NOTE_FFAND | 0x3c, 0x3c},
        {NOTE_FFNOP | 0xff, 0x3c},
    };
    // clang-format on
    int kq = kqueue();
    struct kevent e;
    CHECK_EQ(0, user_change(kq, 3, EV_ADD | EV_CLEAR, 0));
    for (size_t i = 0; i < 4; i++) {
        CHECK_EQ(0, user_change(kq, 3, 0, NOTE_TRIGGER | steps[i].change));
        CHECK_EQ(1, look(kq, &e, 1, SOON));
        CHECK_EQ(steps[i].want, e.fflags);
    }
    close(kq);
}

TEST(user, idents_are_separate_and_oneshot_ends)
{
    int kq = kqueue();
    struct kevent e[4];
    for (unsigned i = 0; i < 4; i++) CHECK_EQ(0, user_change(kq, i, EV_ADD | EV_ONESHOT, 0));
    CHECK_EQ(0, user_change(kq, 1, 0, NOTE_TRIGGER));
    CHECK_EQ(0, user_change(kq, 3, 0, NOTE_TRIGGER));
    CHECK_EQ(2, look(kq, e, 4, SOON));
    CHECK_EQ(4, e[0].ident + e[1].ident);
    CHECK_EQ(ENOENT, user_change(kq, 1, EV_DELETE, 0));
    CHECK_EQ(0, user_change(kq, 2, EV_DELETE, 0));
    CHECK_EQ(0, user_change(kq, 0, 0, NOTE_TRIGGER));
    CHECK_EQ(1, look(kq, e, 4, SOON));
    CHECK_EQ(0, e[0].ident);
    close(kq);
}

TEST(user, events_of_every_kind_come_together_and_in_turn)
{
    int fd[2], kq = kqueue(), file = open(test_path("kq-mixed"), O_RDWR | O_CREAT, 0600);
    struct kevent e[8];
    int seen[4] = {0};
    make_stream(fd);
    CHECK_EQ(1, write(fd[1], "x", 1));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_READ, EV_ADD, &seen[0]));
    CHECK_EQ(0, change(kq, fd[0], EVFILT_WRITE, EV_ADD, &seen[1]));
    CHECK_EQ(0, change(kq, file, EVFILT_WRITE, EV_ADD, &seen[2]));
    CHECK_EQ(0, user_change(kq, 3, EV_ADD, NOTE_TRIGGER));
    CHECK_EQ(4, look(kq, e, 8, SOON));
    for (int i = 0; i < 16; i++) {
        CHECK_EQ(1, look(kq, e, 1, SOON));
        ++*(e[0].filter == EVFILT_USER ? &seen[3] : (int *)e[0].udata);
    }
    for (int i = 0; i < 4; i++) CHECK_BETWEEN(2, 8, seen[i]);
    close(kq);
    close(file);
    close(fd[0]);
    close(fd[1]);
}

static void trigger_later(void *arg)
{
    test_sleep_ms(20);
    ((helper *)arg)->result = user_change(((helper *)arg)->kq, 5, 0, NOTE_TRIGGER);
}

TEST(user, trigger_wakes_another_thread)
{
    helper h = {.kq = kqueue()};
    struct kevent e;
    test_thread t;
    CHECK_EQ(0, user_change(h.kq, 5, EV_ADD | EV_CLEAR, 0));
    test_thread_start(&t, trigger_later, &h);
    CHECK_EQ(1, kevent(h.kq, NULL, 0, &e, 1, NULL));
    test_thread_join(&t);
    CHECK_EQ(0, h.result);
    CHECK(e.udata == &marks[5]);
    close(h.kq);
}

static void add_and_remove(void *arg)
{
    helper *h = (helper *)arg;
    for (int i = 0; i < 300; i++) {
        int fd[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) < 0) h->error = errno;
        if (change(h->kq, fd[0], EVFILT_READ, EV_ADD, NULL)) h->error = 1;
        if (change(h->kq, fd[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, NULL)) h->error = 2;
        if (write(fd[1], "x", 1) != 1) h->error = 3;
        if (i % 2 && change(h->kq, fd[0], EVFILT_READ, EV_DELETE, NULL)) h->error = 4;
        close(fd[1]);
        close(fd[0]); // the other knote goes with it
    }
    if (user_change(h->kq, (unsigned)h->fd, 0, NOTE_TRIGGER)) h->error = 5;
}

TEST(user, threads_may_change_a_queue_that_another_waits_on)
{
    int kq = kqueue(), ended = 0;
    helper h[2] = {{.kq = kq, .fd = 0}, {.kq = kq, .fd = 1}};
    test_thread t[2];
    struct kevent e[8];
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(0, user_change(kq, i, EV_ADD | EV_ONESHOT, 0));
        test_thread_start(&t[i], add_and_remove, &h[i]);
    }
    while (ended < 2) {
        int n = look(kq, e, 8, SOON);
        if (n <= 0) break;
        for (int i = 0; i < n; i++)
            if (e[i].filter == EVFILT_USER) ended++;
    }
    for (int i = 0; i < 2; i++) test_thread_join(&t[i]);
    CHECK_EQ(2, ended);
    CHECK_EQ(0, h[0].error);
    CHECK_EQ(0, h[1].error);
    CHECK(is_quiet(kq));
    close(kq);
}

// clang-format off
TEST_MAIN("kqueue shim",
    T(queue, is_closed_on_exec), T(queue, close_leaves_no_descriptor_behind),
    T(queue, number_that_was_closed_unseen_is_recycled), T(queue, kevent_on_no_queue_is_ebadf),
    T(queue, bad_arguments_are_einval), T(queue, is_readable_while_an_event_waits),
    T(queue, nests_in_another_queue), T(queue, is_not_inherited_by_fork),
    T(wait, lasts_as_long_as_the_timeout), T(wait, without_room_returns_at_once),
    T(wait, without_timeout_lasts_until_an_event),
    T(wait, is_interrupted_by_a_signal_after_its_changes), T(wait, ends_when_the_queue_is_closed),
    T(wait, applies_changes_before_it_looks), T(wait, fills_256_entries_in_one_call),
    T(wait, with_little_room_starves_nobody),
    T(flags, level_repeats_until_drained), T(flags, clear_reports_each_arrival_once),
    T(flags, clear_write_reports_new_room_once), T(flags, oneshot_deletes_the_knote),
    T(flags, dispatch_disables_until_enable), T(flags, disable_hides_and_enable_shows),
    T(flags, disabled_knote_ignores_a_hang_up), T(flags, add_again_replaces_udata_in_one_knote),
    T(flags, add_again_keeps_the_first_kind), T(flags, any_change_looks_at_the_state_again),
    T(flags, two_filters_are_two_entries),
    T(error, unknown_knote_is_enoent), T(error, closed_descriptor_is_ebadf),
    T(error, lies_in_the_eventlist_if_there_is_room), T(error, without_room_fails_the_call),
    T(error, receipts_report_success_and_drain_nothing),
    T(error, receipt_without_room_stops_the_changes),
    T(close, removes_the_knotes), T(close, removes_the_knotes_of_a_duplicated_socket),
    T(close, reused_number_starts_anew), T(close, by_dup2_shows_as_enoent),
    T(close, does_not_reach_other_queues_or_numbers),
    T(read, half_close_is_eof_with_the_remaining_data),
    T(read, end_with_data_comes_once_with_clear), T(read, reset_shows_its_error_once),
    T(read, data_before_a_reset_is_not_lost), T(read, listener_tells_its_backlog),
    T(read, unix_listener_is_readable), T(read, datagram_error_is_no_eof),
    T(read, empty_datagram_is_an_event), T(read, pipe_ends_with_its_writer),
    T(read, file_is_readable_until_its_end), T(read, any_descriptor_number),
    T(write, data_is_the_room_left), T(write, peer_gone_is_eof),
    T(write, pipe_without_reader_is_eof), T(write, refused_connect_is_eof_with_its_error),
    T(write, error_does_not_outlive_its_descriptor),
    T(write, unconnected_stream_is_silent_until_it_connects),
    T(write, connect_completes_with_an_event),
    T(user, trigger_with_clear_reports_once), T(user, trigger_without_clear_stays),
    T(user, fflags_follow_their_operators), T(user, idents_are_separate_and_oneshot_ends),
    T(user, events_of_every_kind_come_together_and_in_turn),
    T(user, trigger_wakes_another_thread),
    T(user, threads_may_change_a_queue_that_another_waits_on))
// clang-format on
