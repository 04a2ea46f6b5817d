// A supervisor and its workers: a client is served by a process that serves nobody else meanwhile,
// so one that crashes takes one client along.
//
//     prefork [--workers N] [ADDRESS]       default: 4 workers on :8080; answers HTTP with a pid
//
//     SIGHUP   start new workers, from the program as it lies on the disk now, and let the old ones
//              finish: no client notices. If the new ones do not start, the old ones stay
//     SIGTERM  let the workers finish their clients, and end; SIGINT too
//     SIGUSR1  print which workers are busy
//
// The supervisor owns the listening socket and never accepts. A worker is this program again, with
// one end of a pair of Unix sockets, over which it is handed the listener and gets its orders: the
// bytes below. It is a stream pair, as only that tells each side of the other's death.
//
//     0x10 + a descriptor -> 0x10    here is the listener; ready
//     0x01 -> 0x01                   ping, pong
//     0x02 -> 0x02 or 0x03           status: free or busy
//     0xFF -> 0xFF                   finish and exit
//     anything else -> 0xEE          not understood
//
// Build  cc prefork.c -o prefork          (POSIX; Windows passes no descriptors between processes)
// Try    ./prefork 127.0.0.1:8080         and: curl 127.0.0.1:8080; kill -HUP the supervisor
#define NETIO_IMPLEMENTATION
#include "../../netio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
int main(void)
{
    fprintf(stderr,
            "prefork: not on Windows: it has no fork, and netio passes no descriptors there "
            "(NETIO_ENOTSUP)\n");
    return 1;
}
#else
#include <sys/wait.h>
#include <unistd.h>

enum { PING = 0x01, STATUS = 0x02, BUSY = 0x03, LISTENER = 0x10, ERROR = 0xEE, SHUTDOWN = 0xFF };
enum { WORKERS_MAX = 64, START_MS = 5000, STOP_MS = 10000, PING_MS = 2000, CLIENT_MS = 5000 };

static netio_poller *poller;
static netio_socket listener = NETIO_INVALID_SOCKET;

static int complain(const char *what, ptrdiff_t err)
{
    fprintf(stderr, "prefork: %s: %s\n", what, netio_strerror(err));
    return 1;
}

//------------------------------------------------------------------------------------------------
// A worker: one client at a time. While it has one, it does not listen, so others take the next.
//------------------------------------------------------------------------------------------------

static struct {
    netio_socket s;
    char request[4096];
    size_t len;
    int64_t by; // it must be done then
    bool answered;
} client = {.s = NETIO_INVALID_SOCKET};

static netio_socket control = NETIO_INVALID_SOCKET; // the worker's end of its pair
static volatile sig_atomic_t finishing;

static void on_worker_signal(int number)
{
    (void)number;
    finishing = 1;
    netio_poller_wake(poller);
}

static bool busy(void) { return client.s != NETIO_INVALID_SOCKET; }

static void listen_if_free(void)
{
    netio_poller_modify(poller, listener, busy() || finishing ? 0 : NETIO_EV_READ, &listener);
}

static void end_client(void)
{
    netio_poller_drop(poller, &client.s);
    listen_if_free();
}

static void take_client(void)
{
    if (netio_accept(&client.s, listener, NULL, 0) < 0) return; // another worker was faster
    client.len = 0;
    client.answered = false;
    client.by = netio_deadline(CLIENT_MS);
    if (netio_poller_add(poller, client.s, NETIO_EV_READ, &client) < 0) netio_close(&client.s);
    listen_if_free();
}

static void answer(void)
{
    char body[32], text[256];
    int body_len = snprintf(body, sizeof body, "pid %ld\n", (long)getpid());
    int len = snprintf(text, sizeof text,
                       "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
                       "Connection: close\r\n\r\n%s",
                       body_len, body);
    netio_send_all(client.s, text, (size_t)len, NULL, 0); // fits any socket's empty buffer
    // Closing now could reset the connection under the answer, if more of the request is under way.
    netio_shutdown(client.s, NETIO_SHUT_WRITE);
    client.answered = true;
    client.len = 0;
}

static void serve_client(void)
{
    char *at = client.request + client.len;
    ptrdiff_t n = netio_recv(client.s, at, sizeof client.request - 1 - client.len, 0);
    if (n == NETIO_EAGAIN) return;
    if (n <= 0) { // gone, or a head longer than we take
        end_client();
        return;
    }
    if (client.answered) return;
    client.len += (size_t)n;
    client.request[client.len] = 0;
    if (strstr(client.request, "\r\n\r\n")) answer();
}

// Returns false when the supervisor is gone: then a worker finishes what it began, and ends.
static bool obey(void)
{
    unsigned char order, reply = ERROR;
    netio_socket unasked[1];
    size_t count = 0; // whatever descriptors come now are closed
    ptrdiff_t n = netio_recv_fds(control, &order, 1, unasked, &count, 0);
    if (n == NETIO_EAGAIN || n == NETIO_EMSGSIZE) return true;
    if (n < 0) return false;
    if (order == PING) reply = PING;
    if (order == STATUS) reply = busy() ? BUSY : STATUS;
    if (order == SHUTDOWN) {
        reply = SHUTDOWN;
        finishing = 1;
    }
    return netio_send_all(control, &reply, 1, NULL, 1000) == 0;
}

static int receive_listener(void)
{
    unsigned char order = 0, ready = LISTENER;
    size_t count = 1;
    int listening = 0;
    ptrdiff_t n = netio_recv_fds(control, &order, 1, &listener, &count, START_MS);
    if (n < 0) return (int)n;
    if (order != LISTENER || count != 1) return NETIO_EPROTO;
    int err = netio_adopt(listener, NULL);
    if (err == 0) err = netio_get_option(listener, NETIO_OPT_LISTENING, &listening);
    if (err == 0 && !listening) err = NETIO_EPROTO;
    if (err == 0) err = netio_poller_add(poller, listener, NETIO_EV_READ, &listener);
    if (err == 0) err = netio_send_all(control, &ready, 1, NULL, START_MS);
    return err;
}

static int work(const char *descriptor)
{
    netio_event events[3];
    control = atoi(descriptor);
    int err = netio_adopt(control, NULL);
    if (err == 0) err = netio_set_inheritable(control, false); // it had to be until here
    if (err == 0) err = netio_poller_open(&poller, NETIO_BACKEND_AUTO);
    if (err == 0) err = netio_poller_add(poller, control, NETIO_EV_READ, &control);
    if (err == 0) err = receive_listener();
    if (err < 0) return complain("worker", err);
    signal(SIGTERM, on_worker_signal); // service managers send it to all processes of a service

    while (!finishing || busy()) {
        int left = busy() ? netio_deadline_left(client.by) : -1;
        ptrdiff_t n = netio_poller_wait(poller, events, 3, left);
        if (n < 0) return complain("worker", n);
        for (ptrdiff_t i = 0; i < n; i++) {
            if (events[i].user == &client && busy()) serve_client();
            if (events[i].user == &listener && !busy() && !finishing) take_client();
            if (events[i].user == &control && !obey()) finishing = 1;
        }
        if (finishing) listen_if_free();
        if (busy() && netio_deadline_left(client.by) == 0) end_client();
    }
    return 0;
}

//------------------------------------------------------------------------------------------------
// The supervisor
//
//     FREE -> STARTING -> READY -> STOPPING -> FREE       any of them may die, and is FREE then
//------------------------------------------------------------------------------------------------

enum { FREE, STARTING, READY, STOPPING };

typedef struct worker {
    pid_t pid;
    int state;
    netio_socket control;
    int64_t by;   // to have started, answered the ping, or stopped
    bool waiting; // for the pong
    bool old;     // to be replaced by the restart that is under way
    uint64_t since;
} worker;

static worker workers[2 * WORKERS_MAX];
static const char *self;
static int wanted = 4, deaths; // deaths: of young workers, one after another
static bool restarting, stopping, proven;
static int64_t not_before; // when to start another one
static volatile sig_atomic_t got_hangup, got_end, got_status;

static void on_signal(int number)
{
    if (number == SIGHUP) got_hangup = 1;
    if (number == SIGTERM || number == SIGINT) got_end = 1;
    if (number == SIGUSR1) got_status = 1;
    netio_poller_wake(poller); // for SIGCHLD there is no more to do than to look
}

static int count_of(int state, bool old)
{
    int count = 0;
    for (int i = 0; i < 2 * WORKERS_MAX; i++)
        count += workers[i].state == state && workers[i].old == old;
    return count;
}

static void order(worker *w, unsigned char byte)
{
    netio_send(w->control, &byte, 1, 0); // who does not take it misses its deadline, and is killed
}

static void stop(worker *w)
{
    w->state = STOPPING;
    w->by = netio_deadline(STOP_MS);
    order(w, SHUTDOWN);
}

static int start_worker(void)
{
    netio_socket pair[2];
    unsigned char byte = LISTENER;
    char descriptor[16];
    worker *w = workers;
    while (w < workers + 2 * WORKERS_MAX && w->state != FREE) w++;
    if (w == workers + 2 * WORKERS_MAX) return NETIO_EBUSY;
    int err = netio_pair(pair, NETIO_STREAM);
    if (err < 0) return err;
    snprintf(descriptor, sizeof descriptor, "%d", (int)pair[1]);

    pid_t pid = fork();
    if (pid == 0) { // everything else is close-on-exec
        char *words[] = {(char *)self, (char *)"--worker", descriptor, NULL};
        // Ctrl-C reaches all; the supervisor acts on it. What is ignored stays so across exec.
        signal(SIGINT, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        netio_set_inheritable(pair[1], true);
        execvp(self, words);
        _exit(127);
    }
    if (pid < 0) err = netio_error_from_os(netio_os_error());
    netio_close(&pair[1]);
    if (err == 0) {
        memset(w, 0, sizeof *w);
        w->pid = pid;
        w->state = STARTING;
        w->control = pair[0];
        w->by = netio_deadline(START_MS);
        w->since = netio_now_ms();
        // A failure shows as a worker that is not ready in time.
        netio_poller_add(poller, w->control, NETIO_EV_READ, w);
        netio_send_fds(w->control, &byte, 1, &listener, 1, 0);
    } else {
        netio_close(&pair[0]);
    }
    return err;
}

// The first time or after a death: as many as are wanted, with pauses if they do not live.
static void keep_number(void)
{
    int missing = wanted - count_of(STARTING, false) - count_of(READY, false);
    if (stopping || restarting || netio_deadline_left(not_before) > 0) return;
    while (missing-- > 0) {
        int err = start_worker();
        if (err == 0) continue;
        complain("new worker", err);
        not_before = netio_deadline(1000);
        return;
    }
}

static void begin_restart(void)
{
    int err = 0;
    if (restarting || stopping) return;
    printf("restarting\n");
    restarting = true;
    for (int i = 0; i < 2 * WORKERS_MAX; i++) workers[i].old = true;
    for (int i = 0; i < wanted && err == 0; i++) err = start_worker();
    if (err < 0) complain("new worker", err);
}

// The old ones stop when all new ones are ready; if one of those is lost before, the new ones do.
static void advance_restart(void)
{
    if (!restarting || stopping) return;
    bool ready = count_of(READY, false) == wanted;
    if (!ready && count_of(READY, false) + count_of(STARTING, false) == wanted) return;
    for (int i = 0; i < 2 * WORKERS_MAX; i++) {
        worker *w = &workers[i];
        if ((w->state == READY || w->state == STARTING) && w->old == ready) stop(w);
        w->old = false;
    }
    restarting = false;
    printf(ready ? "restarted\n" : "restart failed; the old workers go on\n");
}

static void begin_end(void)
{
    stopping = true;
    for (int i = 0; i < 2 * WORKERS_MAX; i++) {
        workers[i].old = false;
        if (workers[i].state == STARTING || workers[i].state == READY) stop(&workers[i]);
    }
}

static void hear(worker *w)
{
    unsigned char bytes[16];
    ptrdiff_t n = netio_recv(w->control, bytes, sizeof bytes, 0);
    if (n < 0 && n != NETIO_EAGAIN) netio_poller_drop(poller, &w->control); // its end is for reap()
    for (ptrdiff_t i = 0; i < n; i++) {
        if (bytes[i] == LISTENER && w->state == STARTING) {
            w->state = READY;
            w->by = netio_deadline(PING_MS);
            proven = true;
            printf("worker %ld is ready\n", (long)w->pid);
        }
        if (bytes[i] == PING) w->waiting = false;
        if (bytes[i] == STATUS) printf("worker %ld is free\n", (long)w->pid);
        if (bytes[i] == BUSY) printf("worker %ld is busy\n", (long)w->pid);
    }
}

// A worker whose time is up is killed; reap() sees to the rest. Returns the next time to look.
static int64_t check_times(void)
{
    int64_t next =
        not_before > 0 && netio_deadline_left(not_before) > 0 ? not_before : netio_deadline(-1);
    for (int i = 0; i < 2 * WORKERS_MAX; i++) {
        worker *w = &workers[i];
        if (w->state == FREE) continue;
        if (netio_deadline_left(w->by) == 0) {
            if (w->state == READY && !w->waiting) {
                w->waiting = true;
                order(w, PING);
            } else {
                printf("worker %ld does not answer: killed\n", (long)w->pid);
                kill(w->pid, SIGKILL);
            }
            w->by = netio_deadline(PING_MS);
        }
        if (w->by < next) next = w->by;
    }
    return next;
}

// Every process that ended is waited for, so that none stays behind as a zombie.
static void reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        worker *w = workers;
        while (w < workers + 2 * WORKERS_MAX && (w->state == FREE || w->pid != pid)) w++;
        if (w == workers + 2 * WORKERS_MAX) continue;
        if (w->control != NETIO_INVALID_SOCKET) netio_poller_drop(poller, &w->control);
        if (w->state != STOPPING) {
            printf("worker %ld died (%s %d)\n", (long)pid,
                   WIFSIGNALED(status) ? "signal" : "exit code",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            deaths = netio_now_ms() - w->since < 1000 ? deaths + 1 : 0;
            if (deaths) not_before = netio_deadline(deaths < 6 ? 50 << deaths : 3000);
        }
        w->state = FREE;
        w->old = false;
    }
}

static int supervise(void)
{
    for (;;) {
        netio_event events[64];
        if (got_end && !stopping) begin_end(); // first: it may have reached the workers too
        reap();
        if (stopping && count_of(STOPPING, false) == 0) return 0;
        if (got_hangup) begin_restart();
        for (int i = 0; got_status && i < 2 * WORKERS_MAX; i++)
            if (workers[i].state == READY) order(&workers[i], STATUS);
        got_hangup = got_status = 0;
        advance_restart();
        if (!proven && deaths >= wanted)
            return complain("the workers do not start", NETIO_ECANCELED);
        keep_number();
        fflush(stdout);
        int64_t next = check_times();
        ptrdiff_t n = netio_poller_wait(poller, events, 64, netio_deadline_left(next));
        if (n < 0) return complain("poller", n);
        for (ptrdiff_t i = 0; i < n; i++) {
            worker *w = events[i].user;
            if (w->state != FREE && w->control == events[i].socket) hear(w);
        }
    }
}

int main(int argc, char **argv)
{
    const char *address = ":8080";
    char text[NETIO_ADDR_TEXT];
    netio_addr local;
    int at = 1;
    self = argv[0];
    if (argc == 3 && strcmp(argv[1], "--worker") == 0) return work(argv[2]);
    if (argc > 2 && strcmp(argv[1], "--workers") == 0) {
        wanted = atoi(argv[2]);
        at = 3;
    }
    if (at < argc) address = argv[at++];
    if (at < argc || address[0] == '-' || wanted < 1 || wanted > WORKERS_MAX) {
        fprintf(stderr, "usage: prefork [--workers 1..%d] [ADDRESS]\n", (int)WORKERS_MAX);
        return 2;
    }
    int err = netio_poller_open(&poller, NETIO_BACKEND_AUTO);
    if (err == 0) err = netio_listen(&listener, address, NULL);
    if (err == 0) err = netio_local_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, text, sizeof text);
    if (err < 0) return complain(address, err);
    signal(SIGHUP, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    signal(SIGUSR1, on_signal);
    signal(SIGCHLD, on_signal);
    printf("listening on %s (supervisor %ld)\n", text, (long)getpid());
    int code = supervise();
    netio_close(&listener);
    netio_unix_unlink(&local); // refuses what is no path
    netio_poller_close(poller);
    printf("ended\n");
    return code;
}
#endif
