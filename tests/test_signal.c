// BACKENDS: all
//
// Signals, and on Windows the events of the console, as callbacks of a loop. They belong to the
// process, so most of this asks what is left of the former disposition.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#include <signal.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <pthread.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

enum { LONG_MS = 10000, FAR_MS = 3600 * 1000 };

static netio_loop *loop;
static const netio_signal nothing;

static void make_loop(netio_loop **out)
{
    netio_loop_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.backend = test_backend();
    CHECK_OK(netio_loop_create(out, &opts));
}

static void open_loop(void) { make_loop(&loop); }

static void close_loop(void) { CHECK_OK(netio_loop_destroy(loop)); }

static void count(void *user) { ++*(int *)user; }

// Turns until `*calls` is `want`, then one more, in which nothing comes.
static void until(const int *calls, int want)
{
    uint64_t limit = test_ms() + LONG_MS;
    while (*calls < want) {
        CHECK(netio_loop_run_once(loop, 100) >= 0);
        CHECK(test_ms() < limit);
    }
    CHECK_EQ(0, netio_loop_run_once(loop, 5));
    CHECK_EQ(want, *calls);
}

TEST(signal, numbers_that_cannot_be_caught_are_refused)
{
    static const int numbers[] = {0, -1, -1000, 64 + 1, 1000, INT32_MAX, INT32_MIN};
    netio_signal s = nothing;
    open_loop();
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        CHECK_ERR(NETIO_EINVAL, netio_signal_start(&s, loop, numbers[i], count, NULL));
#ifndef _WIN32
    CHECK_ERR(NETIO_EINVAL, netio_signal_start(&s, loop, SIGKILL, count, NULL));
    CHECK_ERR(NETIO_EINVAL, netio_signal_start(&s, loop, SIGSTOP, count, NULL));
#else
    CHECK_ERR(NETIO_EINVAL, netio_signal_start(&s, loop, SIGSEGV, count, NULL));
#endif
    CHECK(s.ptr == NULL);
    netio_signal_stop(nothing);
    CHECK_OK(netio_loop_run(loop)); // nothing was begun that would keep it
    close_loop();
}

TEST(signal, one_is_started_once_in_a_process)
{
    netio_loop *other;
    netio_signal s, t = nothing, second;
    int calls = 0;
    open_loop();
    make_loop(&other);
    CHECK_OK(netio_signal_start(&s, loop, SIGINT, count, &calls));
    CHECK_ERR(NETIO_EEXIST, netio_signal_start(&t, loop, SIGINT, count, &calls));
    CHECK_ERR(NETIO_EEXIST, netio_signal_start(&t, other, SIGINT, count, &calls));
    CHECK(t.ptr == NULL);
    CHECK_OK(netio_signal_start(&second, other, SIGTERM, count, &calls));
    netio_signal_stop(s);
    netio_signal_stop(s);
    CHECK_OK(netio_signal_start(&t, other, SIGINT, count, &calls));
    CHECK_ERR(NETIO_EEXIST, netio_signal_start(&s, loop, SIGINT, count, &calls));
    CHECK_OK(netio_loop_destroy(other)); // with both of them
    CHECK_OK(netio_signal_start(&s, loop, SIGINT, count, &calls));
    CHECK_OK(netio_signal_start(&second, loop, SIGTERM, count, &calls));
    close_loop();
    CHECK_EQ(0, calls);
}

TEST(signal, without_memory_the_disposition_is_untouched)
{
    netio_signal s;
    int calls = 0;
    open_loop();
    for (long n = 1;; n++) {
        s = nothing;
        test_alloc_fail_at(n);
        int err = netio_signal_start(&s, loop, SIGINT, count, &calls);
        test_alloc_fail_at(0);
        if (err == 0) break;
        CHECK_ERR(NETIO_ENOMEM, err);
        CHECK(s.ptr == NULL && n < 50);
    }
    netio_signal_stop(s);
    CHECK_OK(netio_loop_run(loop));
    close_loop();
}

TEST(signal, a_loop_on_a_network_in_memory_has_none)
{
    netio_loop_opts opts;
    netio_network *net;
    netio_signal s;
    memset(&opts, 0, sizeof opts);
    CHECK_OK(netio_network_create(&net, NULL));
    opts.network = net;
    CHECK_OK(netio_loop_create(&loop, &opts));
    int err = netio_signal_start(&s, loop, SIGINT, count, NULL);
    CHECK_ERR(NETIO_ENOTSUP, err);
    close_loop();
    CHECK_OK(netio_network_destroy(net));
}

#ifndef _WIN32
//================================================================================================
// POSIX
//================================================================================================

static const int signals[] = {SIGINT,  SIGTERM, SIGHUP,  SIGUSR1,  SIGUSR2,
                              SIGQUIT, SIGALRM, SIGCHLD, SIGWINCH, SIGPIPE};
enum { SIGNALS = sizeof signals / sizeof signals[0] };

TEST(signal, each_reaches_its_own_task)
{
    netio_signal s[SIGNALS];
    int calls[SIGNALS];
    memset(calls, 0, sizeof calls);
    open_loop();
    for (int i = 0; i < SIGNALS; i++)
        CHECK_OK(netio_signal_start(&s[i], loop, signals[i], count, &calls[i]));
    for (int i = 0; i < SIGNALS; i++) {
        CHECK_EQ(0, kill(getpid(), signals[i]));
        CHECK_EQ(0, calls[i]); // from the loop, not from the handler
        until(&calls[i], 1);
    }
    for (int i = 0; i < SIGNALS; i++) CHECK_EQ(1, calls[i]);
    for (int i = 0; i < SIGNALS; i += 2) netio_signal_stop(s[i]);
    close_loop(); // ends the others
}

TEST(signal, several_at_once_run_it_at_least_once)
{
    netio_signal s;
    int calls = 0, others = 0;
    open_loop();
    CHECK_OK(netio_signal_start(&s, loop, SIGUSR1, count, &calls));
    CHECK_OK(netio_signal_start(NULL, loop, SIGUSR2, count, &others));
    for (int i = 0; i < 5; i++) CHECK_EQ(0, raise(SIGUSR1));
    CHECK_EQ(0, raise(SIGUSR2));
    while (calls == 0 || others == 0) CHECK(netio_loop_run_once(loop, LONG_MS) >= 0);
    while (netio_loop_run_once(loop, 0) > 0) {}
    CHECK_BETWEEN(1, 5, calls);
    CHECK_EQ(1, others);
    // Far more than any pipe holds: none blocks, and the loop goes on.
    calls = 0;
    for (int i = 0; i < 300000; i++) CHECK_EQ(0, raise(SIGUSR1));
    while (netio_loop_run_once(loop, 0) > 0) {}
    CHECK_BETWEEN(1, 300000, calls);
    calls = 0;
    CHECK_EQ(0, raise(SIGUSR1));
    until(&calls, 1);
    close_loop();
}

static volatile sig_atomic_t handled;

static void own_handler(int signum, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    handled = signum;
}

static bool same_disposition(const struct sigaction *a, const struct sigaction *b)
{
    if (a->sa_flags != b->sa_flags || a->sa_handler != b->sa_handler) return false;
    for (int n = 1; n < 32; n++)
        if (sigismember(&a->sa_mask, n) != sigismember(&b->sa_mask, n)) return false;
    return true;
}

TEST(signal, the_former_disposition_comes_back)
{
    struct sigaction old, mine[3], got;
    netio_signal s;
    int calls = 0;
    CHECK_EQ(0, sigaction(SIGUSR1, NULL, &old));
    memset(mine, 0, sizeof mine);
    mine[0].sa_handler = SIG_IGN;
    mine[1].sa_handler = SIG_DFL;
    mine[2].sa_sigaction = own_handler;
    mine[2].sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaddset(&mine[2].sa_mask, SIGHUP);
    sigaddset(&mine[2].sa_mask, SIGTERM);
    for (int i = 0; i < 6; i++) {
        struct sigaction before;
        CHECK_EQ(0, sigaction(SIGUSR1, &mine[i / 2], NULL));
        CHECK_EQ(0, sigaction(SIGUSR1, NULL, &before));
        open_loop();
        CHECK_OK(netio_signal_start(&s, loop, SIGUSR1, count, &calls));
        CHECK_EQ(0, sigaction(SIGUSR1, NULL, &got));
        CHECK(!same_disposition(&before, &got));
        calls = 0;
        CHECK_EQ(0, raise(SIGUSR1));
        until(&calls, 1);
        if (i % 2 == 0) netio_signal_stop(s);
        if (i % 2 == 0) CHECK_EQ(0, sigaction(SIGUSR1, NULL, &got));
        close_loop();
        if (i % 2 == 1) CHECK_EQ(0, sigaction(SIGUSR1, NULL, &got));
        CHECK(same_disposition(&before, &got));
    }
    handled = 0;
    CHECK_EQ(0, raise(SIGUSR1));
    CHECK_EQ(SIGUSR1, handled);
    CHECK_EQ(0, sigaction(SIGUSR1, &old, NULL));
}

TEST(signal, what_came_before_stop_runs_no_more)
{
    struct sigaction old, ignore;
    netio_signal s;
    int calls = 0, others = 0;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    CHECK_EQ(0, sigaction(SIGUSR1, &ignore, &old));
    open_loop();
    CHECK_OK(netio_signal_start(&s, loop, SIGUSR1, count, &calls));
    CHECK_EQ(0, raise(SIGUSR1));
    netio_signal_stop(s);
    CHECK_EQ(0, raise(SIGUSR1)); // ignored again
    CHECK(netio_loop_run_once(loop, 20) >= 0);
    CHECK_EQ(0, calls);
    CHECK_OK(netio_signal_start(&s, loop, SIGUSR1, count, &others));
    CHECK(netio_loop_run_once(loop, 20) >= 0);
    CHECK_EQ(0, others);
    CHECK_EQ(0, raise(SIGUSR1));
    until(&others, 1);
    close_loop();
    CHECK_EQ(0, sigaction(SIGUSR1, &old, NULL));
}

static netio_signal self;
static int restarted;

static void stop_own(void *user)
{
    ++*(int *)user;
    netio_signal_stop(self);
}

static void start_again(void *user)
{
    ++*(int *)user;
    netio_signal_stop(self);
    CHECK_OK(netio_signal_start(&self, loop, SIGUSR1, stop_own, &restarted));
}

TEST(signal, a_callback_stops_and_starts)
{
    int calls = 0;
    restarted = 0;
    open_loop();
    CHECK_OK(netio_signal_start(&self, loop, SIGUSR1, start_again, &calls));
    CHECK_EQ(0, raise(SIGUSR1));
    until(&calls, 1);
    CHECK_EQ(0, raise(SIGUSR1));
    CHECK_OK(netio_loop_run(loop)); // ends: the second task stopped the last signal
    CHECK_EQ(1, calls);
    CHECK_EQ(1, restarted);
    close_loop();
}

static void signal_process(void *arg)
{
    test_sleep_ms(20);
    kill(getpid(), *(int *)arg);
}

static void signal_this_thread(void *arg)
{
    test_sleep_ms(20);
    pthread_kill(pthread_self(), *(int *)arg); // its handler runs here, the task on the loop
}

static void stop_loop(void *user)
{
    ++*(int *)user;
    netio_loop_stop(loop);
}

TEST(signal, it_wakes_a_loop_that_sleeps)
{
    void (*const senders[])(void *) = {signal_process, signal_this_thread};
    int signum = SIGTERM, calls = 0;
    open_loop();
    CHECK_OK(netio_signal_start(NULL, loop, SIGTERM, stop_loop, &calls));
    for (int i = 0; i < 2; i++) {
        test_thread t;
        uint64_t start = test_ms();
        test_thread_start(&t, senders[i], &signum);
        CHECK_OK(netio_loop_run(loop)); // a started signal keeps it running
        test_thread_join(&t);
        CHECK_EQ(i + 1, calls);
        CHECK_BETWEEN(15, LONG_MS, test_ms() - start);
    }
    close_loop();
}

// What a server does: the first asks politely, the second means it.
static netio_socket peer;
static int asked, gone;

static void finish(void *user)
{
    ++*(int *)user;
    netio_loop_finish(loop, -1);
    if (*(int *)user == 1) CHECK_EQ(0, raise(SIGTERM)); // the impatient user
}

static void on_stop(netio_conn c)
{
    (void)c;
    asked++;
}

static void on_close(netio_conn c, int err)
{
    (void)c, (void)err;
    gone++;
}

TEST(signal, a_second_one_stops_at_once)
{
    static const netio_handler never_ends = {.on_stop = on_stop, .on_close = on_close};
    netio_socket s;
    int calls = 0;
    asked = gone = 0;
    open_loop();
    test_tcp_pair(&peer, &s);
    CHECK_OK(netio_conn_adopt(NULL, loop, s, &never_ends, NULL));
    CHECK_OK(netio_signal_start(NULL, loop, SIGTERM, finish, &calls));
    CHECK(netio_loop_run_once(loop, 5) >= 0);
    CHECK_EQ(0, raise(SIGTERM));
    uint64_t start = test_ms();
    CHECK_OK(netio_loop_run(loop));
    CHECK_BETWEEN(0, LONG_MS, test_ms() - start);
    CHECK_EQ(2, calls);
    CHECK_EQ(1, asked);
    close_loop();
    CHECK_EQ(1, gone);
    CHECK_OK(netio_close(&peer));
}

// 1,000 a second during a wait: none of netio's waits may end early or late by it.
TEST(signal, a_storm_moves_no_timer)
{
    struct itimerval fast, old;
    int calls = 0, ticks = 0;
    open_loop();
    CHECK_OK(netio_signal_start(NULL, loop, SIGALRM, count, &calls));
    memset(&fast, 0, sizeof fast);
    fast.it_interval.tv_usec = fast.it_value.tv_usec = 1000;
    CHECK_EQ(0, setitimer(ITIMER_REAL, &fast, &old));
    CHECK_OK(netio_timer_every(NULL, loop, 10, count, &ticks));
    uint64_t start = netio_now_us();
    CHECK_OK(netio_timer_once(NULL, loop, 200, stop_loop, &asked));
    CHECK_OK(netio_loop_run(loop));
    uint64_t took = netio_now_us() - start;
    CHECK_EQ(0, setitimer(ITIMER_REAL, &old, NULL));
    CHECK_BETWEEN(200000, 5000000, took);
    CHECK_BETWEEN(5, took / 10000, ticks);
    CHECK_BETWEEN(10, took / 1000 + 1, calls);
    while (netio_loop_run_once(loop, 5) > 0) {} // a last one may be under way
    close_loop();
}

// A child that is told to end must not tell its parent.
static int child_part(const struct sigaction *before)
{
    struct sigaction got;
    netio_loop_destroy_after_fork(loop);
    if (sigaction(SIGUSR1, NULL, &got) != 0) return 2;
    if (!same_disposition(before, &got)) return 3;
    handled = 0;
    raise(SIGUSR1);
    return handled == SIGUSR1 ? 0 : 4;
}

TEST(signal, after_fork_the_childs_signals_are_its_own)
{
    struct sigaction old, mine;
    int calls = 0, status = 0;
    memset(&mine, 0, sizeof mine);
    mine.sa_sigaction = own_handler;
    mine.sa_flags = SA_SIGINFO;
    CHECK_EQ(0, sigaction(SIGUSR1, &mine, &old));
    CHECK_EQ(0, sigaction(SIGUSR1, NULL, &mine));
    open_loop();
    CHECK_OK(netio_signal_start(NULL, loop, SIGUSR1, count, &calls));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) _exit(child_part(&mine));
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    CHECK_EQ(0, WEXITSTATUS(status));
    CHECK_EQ(0, netio_loop_run_once(loop, 20));
    CHECK_EQ(0, calls);
    CHECK_EQ(0, raise(SIGUSR1));
    until(&calls, 1);
    close_loop();
    CHECK_EQ(0, sigaction(SIGUSR1, &old, NULL));
}

#else
//================================================================================================
// Windows
//================================================================================================

enum { BREAK = 21 }; // SIGBREAK

// What the console does to each of its processes: it starts this routine of the system in a new
// thread. There is no console here, so the test starts it.
static DWORD(WINAPI *ctrl_routine)(void *event);

static void find_ctrl_routine(void)
{
    static const char *const modules[] = {"kernelbase.dll", "kernel32.dll"};
    for (int i = 0; i < 2 && !ctrl_routine; i++) {
        HMODULE m = GetModuleHandleA(modules[i]);
        FARPROC p = m ? GetProcAddress(m, "CtrlRoutine") : NULL;
        memcpy(&ctrl_routine, &p, sizeof p);
    }
    if (!ctrl_routine) SKIP("this system hides its console routine");
}

static void console_event(DWORD event)
{
    HANDLE thread = CreateThread(NULL, 0, ctrl_routine, (void *)(uintptr_t)event, 0, NULL);
    CHECK(thread != NULL);
    CHECK_EQ(WAIT_OBJECT_0, WaitForSingleObject(thread, LONG_MS));
    CloseHandle(thread);
}

TEST(signal, console_events_are_tasks)
{
    netio_signal s, t;
    int breaks = 0, interrupts = 0;
    find_ctrl_routine();
    open_loop();
    CHECK_OK(netio_signal_start(&s, loop, BREAK, count, &breaks));
    CHECK_OK(netio_signal_start(&t, loop, SIGINT, count, &interrupts));
    SetConsoleCtrlHandler(NULL, FALSE); // the parent may have switched Ctrl-C off
    for (int i = 1; i <= 3; i++) {
        console_event(CTRL_BREAK_EVENT);
        CHECK_EQ(i - 1, breaks); // from the loop only
        until(&breaks, i);
        console_event(CTRL_C_EVENT);
        until(&interrupts, i);
    }
    netio_signal_stop(s);
    console_event(CTRL_C_EVENT);
    until(&interrupts, 4);
    CHECK_EQ(3, breaks);
    netio_signal_stop(t);
    CHECK_OK(netio_loop_run(loop)); // nothing is left
    close_loop();
}

// Close, log off and shutdown are one to a program. The handler waits, because the process ends
// when it returns; that thread stays until the test program ends.
static HANDLE closing_thread;

TEST(signal, a_closed_console_is_sigterm)
{
    int calls = 0;
    find_ctrl_routine();
    open_loop();
    CHECK_OK(netio_signal_start(NULL, loop, SIGTERM, count, &calls));
    closing_thread =
        CreateThread(NULL, 0, ctrl_routine, (void *)(uintptr_t)CTRL_CLOSE_EVENT, 0, NULL);
    CHECK(closing_thread != NULL);
    until(&calls, 1);
    CHECK_EQ(WAIT_TIMEOUT, WaitForSingleObject(closing_thread, 200)); // time to finish work
    TerminateThread(closing_thread, 0);
    CloseHandle(closing_thread);
    close_loop();
}
#endif

// The console's end comes last: it is the end of such a program.
#ifndef _WIN32
#define SYSTEMS_OWN                                                                                \
    T(signal, each_reaches_its_own_task), T(signal, several_at_once_run_it_at_least_once),         \
        T(signal, the_former_disposition_comes_back),                                              \
        T(signal, what_came_before_stop_runs_no_more), T(signal, a_callback_stops_and_starts),     \
        T(signal, it_wakes_a_loop_that_sleeps), T(signal, a_second_one_stops_at_once),             \
        T(signal, a_storm_moves_no_timer), T(signal, after_fork_the_childs_signals_are_its_own)
#else
#define SYSTEMS_OWN T(signal, console_events_are_tasks), T(signal, a_closed_console_is_sigterm)
#endif

TEST_MAIN("signal", T(signal, numbers_that_cannot_be_caught_are_refused),
          T(signal, one_is_started_once_in_a_process),
          T(signal, without_memory_the_disposition_is_untouched),
          T(signal, a_loop_on_a_network_in_memory_has_none), SYSTEMS_OWN)
