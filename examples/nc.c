// A portable netcat: copies its input to a peer, and the peer to its output. TCP, TLS, UDP, Unix
// sockets.
//
//     nc [options] HOST PORT         dial; or in one word: HOST:PORT, [V6]:PORT, unix:PATH
//     nc -l [options] [HOST] PORT    listen for one client; with -k for one after another
//
//     -u  datagrams                        -4, -6  this family only
//     -U  Unix socket: PATH for HOST PORT  -s HOST, -p PORT  come from there (-s PATH with -U)
//     -N  at the end of the input, half-close the connection; with -u, end
//     -w SECONDS  time to connect in, or to get a client; later, end after as much silence
//     -v  tell on stderr what happens
//     -c  TLS: the peer's certificate must be good, and for HOST; listening needs -C
//     -C FILE, -K FILE  certificate and key of this side; the key may be in the same file
//     -R FILE  CAs to trust, not the system's; listening: clients need a certificate of theirs
//     -e NAME  the certificate must be for NAME instead of HOST
//
// It ends when both directions did. Two exceptions: where somebody types the input, and with -k,
// the peer's end is enough. Datagrams have no end, so silence (-w) is as good as one there. Exit
// code 0; 1 if something failed, was refused or took too long; 2 if the command line makes no
// sense.
//
// Build  cc nc.c -o nc          (Windows: gcc nc.c -o nc.exe -lws2_32)
//        cc -DNETIO_TLS_OPENSSL nc.c -o nc -lssl -lcrypto         for -c
// Try    ./nc -l 7777           and in another terminal: ./nc 127.0.0.1 7777
//        printf 'GET / HTTP/1.0\r\n\r\n' | ./nc -c example.com 443
#if !defined(NETIO_TLS_OPENSSL) && !defined(NETIO_TLS_NONE)
#define NETIO_TLS_NONE
#endif
#define NETIO_IMPLEMENTATION
#include "../netio_tls.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//------------------------------------------------------------------------------------------------
// Input and output: something to give a poller, and calls that do not wait when it says so.
//------------------------------------------------------------------------------------------------

#if defined(_WIN32)
#include <windows.h>
#include <io.h>
#include <process.h>

// A console, a pipe or a file cannot be polled here, so a thread stands at each and passes the
// bytes through a pair of sockets. The sockets' buffers are the back-pressure.
static netio_socket input[2], output[2]; // [0] is for the poller, [1] for the thread
static HANDLE writer;

static unsigned __stdcall read_input(void *unused)
{
    static char buf[16384];
    HANDLE from = GetStdHandle(STD_INPUT_HANDLE);
    DWORD n;
    (void)unused;
    while (ReadFile(from, buf, sizeof buf, &n, NULL) && n > 0)
        if (netio_send_all(input[1], buf, n, NULL, -1) < 0) break;
    netio_close(&input[1]);
    return 0;
}

static unsigned __stdcall write_output(void *unused)
{
    static char buf[16384];
    HANDLE to = GetStdHandle(STD_OUTPUT_HANDLE);
    ptrdiff_t n;
    (void)unused;
    while ((n = netio_recv(output[1], buf, sizeof buf, -1)) > 0) {
        DWORD off = 0, k = 0;
        while (off < (DWORD)n && WriteFile(to, buf + off, (DWORD)n - off, &k, NULL)) off += k;
        if (off < (DWORD)n) break;
    }
    CloseHandle(to); // passes the end on
    netio_close(&output[1]);
    return 0;
}

static int stdio_open(netio_socket *in, netio_socket *out)
{
    int err = netio_pair(input, NETIO_STREAM);
    if (err == 0) err = netio_pair(output, NETIO_STREAM);
    if (err < 0) return err;
    writer = (HANDLE)_beginthreadex(NULL, 0, write_output, NULL, 0, NULL);
    if (!writer || !_beginthreadex(NULL, 0, read_input, NULL, 0, NULL)) return NETIO_ENOMEM;
    *in = input[0];
    *out = output[0];
    return 0;
}

static ptrdiff_t stdio_read(void *buf, size_t cap) { return netio_recv(input[0], buf, cap, 0); }

static ptrdiff_t stdio_write(const void *data, size_t len)
{
    return netio_send(output[0], data, len, 0);
}

// What was written comes out before the program ends.
static void stdio_close(void)
{
    netio_close(&output[0]);
    WaitForSingleObject(writer, INFINITE);
}

static bool stdio_typed(void) { return _isatty(0) != 0; }

static bool stdio_pollable(void) { return true; }

#else
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef PIPE_BUF
#define PIPE_BUF _POSIX_PIPE_BUF
#endif

static int stdio_open(netio_socket *in, netio_socket *out)
{
    *in = STDIN_FILENO;
    *out = STDOUT_FILENO;
    return 0;
}

static ptrdiff_t stdio_read(void *buf, size_t cap)
{
    ptrdiff_t n = read(STDIN_FILENO, buf, cap);
    if (n > 0) return n;
    if (n == 0) return NETIO_EOF;
    return errno == EINTR ? NETIO_EAGAIN : netio_error_from_os(errno);
}

// A pipe that is ready takes PIPE_BUF bytes without waiting, and perhaps no more. It is not ours
// alone, so it is not put into the non-blocking mode.
static ptrdiff_t stdio_write(const void *data, size_t len)
{
    ptrdiff_t n = write(STDOUT_FILENO, data, len < PIPE_BUF ? len : PIPE_BUF);
    if (n >= 0) return n;
    return errno == EINTR ? NETIO_EAGAIN : netio_error_from_os(errno);
}

static void stdio_close(void) { close(STDOUT_FILENO); }

static bool stdio_typed(void) { return isatty(STDIN_FILENO) != 0; }

// A file never makes a reader wait; and kqueue would not report its end.
static bool stdio_pollable(void)
{
    struct stat st;
    return fstat(STDIN_FILENO, &st) < 0 || !S_ISREG(st.st_mode);
}
#endif

//------------------------------------------------------------------------------------------------
// The command line
//------------------------------------------------------------------------------------------------

static struct {
    bool listen, keep, datagrams, path, half_close, verbose, tls;
    int family, limit_ms;
    const char *host, *port;            // -s, -p
    const char *cert, *key, *ca, *name; // -C, -K, -R, -e
    char address[300], local[300];
} opt = {.limit_ms = -1};

static bool set_flag(char flag)
{
    switch (flag) {
    case 'l': return opt.listen = true;
    case 'k': return opt.keep = true;
    case 'u': return opt.datagrams = true;
    case 'U': return opt.path = true;
    case 'N': return opt.half_close = true;
    case 'v': return opt.verbose = true;
    case 'c': return opt.tls = true;
    case '4': return opt.family = NETIO_IPV4, true;
    case '6': return opt.family = NETIO_IPV6, true;
    default: return false;
    }
}

static bool set_value(char flag, const char *value)
{
    if (flag == 's') opt.host = value;
    if (flag == 'p') opt.port = value;
    if (flag == 'C') opt.cert = value;
    if (flag == 'K') opt.key = value;
    if (flag == 'R') opt.ca = value;
    if (flag == 'e') opt.name = value;
    if (flag != 'w') return true;
    char *end;
    double seconds = strtod(value, &end);
    if (end == value || *end || !(seconds > 0 && seconds < 1e6)) return false;
    opt.limit_ms = (int)(seconds * 1000);
    return true;
}

// An IPv6 address needs its brackets before a port.
static bool compose(char *out, size_t cap, const char *host, const char *port)
{
    bool v6 = strchr(host, ':') && host[0] != '[';
    int n = opt.path ? snprintf(out, cap, "unix:%s", host)
                     : snprintf(out, cap, v6 ? "[%s]:%s" : "%s:%s", host, port);
    return n > 0 && (size_t)n < cap;
}

static bool parse(int argc, char **argv)
{
    const char *word[2] = {NULL, NULL};
    int words = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            if (words == 2) return false;
            word[words++] = argv[i];
            continue;
        }
        for (const char *flag = argv[i] + 1; *flag; flag++) {
            if (strchr("spwCKRe", *flag)) {
                const char *value = flag[1] ? flag + 1 : argv[++i];
                if (!value || !set_value(*flag, value)) return false;
                break;
            }
            if (!set_flag(*flag)) return false;
        }
    }
    if (opt.keep && !opt.listen) return false;
    if (opt.tls ? opt.datagrams || (opt.listen && !opt.cert)
                : opt.cert || opt.key || opt.ca || opt.name)
        return false;
    if (words == 0 && opt.listen && opt.port) // nc -l -p PORT
        return compose(opt.address, sizeof opt.address, opt.host ? opt.host : "", opt.port);
    if (words == 0 || (words == 2 && opt.path)) return false;
    if ((opt.host || opt.port) &&
        !compose(opt.local, sizeof opt.local, opt.host ? opt.host : "", opt.port ? opt.port : "0"))
        return false;
    if (words == 2 || opt.path) return compose(opt.address, sizeof opt.address, word[0], word[1]);
    bool bare = opt.listen && !strchr(word[0], ':'); // nc -l PORT
    int n = snprintf(opt.address, sizeof opt.address, bare ? ":%s" : "%s", word[0]);
    return n > 0 && (size_t)n < sizeof opt.address;
}

// A complaint also counts as a result.
static int complain(const char *what, ptrdiff_t err)
{
    fprintf(stderr, "nc: %s: %s\n", what, netio_strerror(err));
    return (int)err;
}

static void report(const char *what, const netio_addr *a)
{
    char text[NETIO_ADDR_TEXT];
    if (netio_addr_format(a, text, sizeof text) >= 0) fprintf(stderr, "%s %s\n", what, text);
}

//------------------------------------------------------------------------------------------------
// The conversation: two flows, each with one buffer. A flow is read when its buffer is empty and
// written when it is not, so the one that is stuck does not stop the other.
//------------------------------------------------------------------------------------------------

enum { FROM_INPUT, TO_OUTPUT, PEER, ENDS };

struct end {
    netio_socket s;
    unsigned events; // what it is watched for
    bool polled;     // false: a file, always ready
};

struct flow {
    size_t off, len;
    bool ended; // nothing comes any more
    char data[65536];
};

static netio_poller *poller;
static struct end ends[ENDS];
static struct flow up, down; // input to peer, peer to output
static netio_addr peer;      // listening for datagrams: who gets the answers
static uint64_t moved;       // bytes and datagrams so far, either way
static bool output_open = true;
static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    stopping = 1;
    signal(number, SIG_DFL); // a second one is not asked to wait
    netio_poller_wake(poller);
}

static int watch(struct end *e, unsigned events)
{
    if (events == e->events) return 0;
    e->events = events;
    int err = e->polled ? netio_poller_modify(poller, e->s, events, e) : 0;
    if (err == 0 || e == &ends[PEER]) return err;
    e->polled = false; // a device that the system cannot poll
    return 0;
}

// Wait until an end is ready for what it is watched for.
static int await(unsigned ready[ENDS], int64_t by)
{
    netio_event events[ENDS];
    bool now = false;
    for (int i = 0; i < ENDS; i++) {
        ready[i] = ends[i].polled ? 0 : ends[i].events;
        if (ready[i]) now = true;
    }
    ptrdiff_t n = netio_poller_wait(poller, events, ENDS, now ? 0 : netio_deadline_left(by));
    if (n < 0) return complain("poller", n);
    if (stopping) return NETIO_ECANCELED;
    if (n == 0 && !now) return NETIO_ETIMEDOUT;
    for (ptrdiff_t i = 0; i < n; i++) ready[(struct end *)events[i].user - ends] = events[i].events;
    return 0;
}

static void took(struct flow *f, ptrdiff_t n)
{
    f->off += (size_t)n;
    moved += (uint64_t)n;
    if (f->off == f->len) f->off = f->len = 0;
}

//--- TLS: an engine between the flows and the socket -------------------------------------------

static netio_tls_ctx *tls_ctx; // NULL: plain
static netio_tls *tls;         // of this conversation; NULL: plain
static bool tls_ready;         // the handshake is done

static int tls_complain(ptrdiff_t err)
{
    netio_tls_error e;
    if (netio_tls_get_error(tls, &e) < 0) return complain(opt.address, err);
    fprintf(stderr, "nc: %s: %s\n", opt.address, e.text);
    return (int)err;
}

static int tls_setup(void)
{
    netio_tls_config cfg = {.ca_file = opt.ca, .cert_file = opt.cert, .key_file = opt.key};
    netio_tls_error why;
    if (opt.listen && opt.ca) cfg.client_cert = NETIO_TLS_CLIENT_CERT_REQUIRED;
    int err = netio_tls_ctx_create(&tls_ctx, &cfg, &why);
    if (err < 0) fprintf(stderr, "nc: %s\n", why.text);
    return err;
}

// The host of what was dialed, without brackets, zone and port: what the certificate must be for.
static const char *tls_name(void)
{
    static char name[sizeof opt.address];
    if (opt.name) return opt.name;
    bool bracket = opt.address[0] == '[';
    snprintf(name, sizeof name, "%s", opt.address + bracket);
    char *end = bracket ? name + strcspn(name, "]%") : strrchr(name, ':');
    if (end) *end = '\0';
    return name;
}

static int tls_open(void)
{
    tls_ready = false;
    int err = opt.listen ? netio_tls_server(&tls, tls_ctx)
                         : netio_tls_client(&tls, tls_ctx, tls_name(), NULL);
    return err < 0 ? complain("TLS", err) : 0;
}

// What the engine has for the peer, as far as the socket takes it.
static int tls_send(void)
{
    for (;;) {
        netio_buf out = netio_tls_out(tls);
        if (out.len == 0) return 0;
        ptrdiff_t n = netio_send(ends[PEER].s, out.data, out.len, 0);
        if (n == NETIO_EAGAIN) return 0;
        if (n < 0) return complain(opt.address, n);
        netio_tls_out_drop(tls, (size_t)n);
    }
}

static int tls_receive(void)
{
    char data[16384];
    ptrdiff_t n = netio_recv(ends[PEER].s, data, sizeof data, 0);
    if (n == NETIO_EAGAIN) return 0;
    if (n < 0 && n != NETIO_EOF) return complain(opt.address, n);
    moved++;
    if (n == NETIO_EOF) netio_tls_feed_end(tls); // the engine knows whether more was to come
    else return netio_tls_feed(tls, data, (size_t)n);
    return 0;
}

static int tls_handshake(void)
{
    netio_tls_info info;
    int err = netio_tls_handshake(tls);
    if (err == NETIO_EAGAIN) return 0;
    tls_ready = err == 0;
    if (err == 0 && opt.verbose && netio_tls_get_info(tls, &info) == 0)
        fprintf(stderr, "%s %s\n", info.version_text, info.cipher);
    return err;
}

// All that moves without the socket: input into the engine, plain bytes out of it.
static int tls_turn(void)
{
    ptrdiff_t n = tls_ready ? 0 : tls_handshake();
    if (n == 0 && tls_ready && up.len) {
        n = netio_tls_write(tls, up.data + up.off, up.len - up.off);
        if (n > 0) took(&up, n);
        if (n > 0 || n == NETIO_ENOBUFS || n == NETIO_EAGAIN) n = 0;
    }
    if (n == 0 && tls_ready && !down.len && !down.ended) {
        n = netio_tls_read(tls, down.data, sizeof down.data);
        if (n > 0) down.len = (size_t)n;
        down.ended = n == NETIO_EOF;
        if (n > 0 || n == NETIO_EOF || n == NETIO_EAGAIN) n = 0;
    }
    int err = tls_send(); // also after an error: the peer gets to know why
    return n < 0 ? tls_complain(n) : err;
}

// Tells the peer that this was the end, and frees the engine.
static void tls_close(void)
{
    if (tls_ready) netio_tls_shutdown(tls);
    netio_buf out = netio_tls_out(tls);
    netio_send_all(ends[PEER].s, out.data, out.len, NULL, 2000);
    netio_tls_destroy(tls);
    tls = NULL;
}

//------------------------------------------------------------------------------------------------

static int to_peer(void)
{
    if (tls) return tls_turn();
    if (up.len == 0) return 0;
    const char *data = up.data + up.off;
    size_t len = up.len - up.off;
    bool answer = opt.listen && opt.datagrams;
    ptrdiff_t n = answer ? netio_sendto(ends[PEER].s, data, len, &peer, 0)
                         : netio_send(ends[PEER].s, data, len, 0);
    if (n == NETIO_EAGAIN) return 0;
    if (n < 0) return complain(opt.address, n);
    took(&up, n);
    return 0;
}

static int from_input(void)
{
    // A datagram for each line that is typed; 8 KiB of a file fit one on every system.
    ptrdiff_t n = stdio_read(up.data, opt.datagrams ? 8192 : sizeof up.data);
    if (n == NETIO_EAGAIN) return 0;
    up.ended = n < 0;
    if (n == NETIO_EOF) return 0;
    if (n < 0) return complain("input", n);
    up.len = (size_t)n;
    return to_peer();
}

static int from_peer(void)
{
    if (tls) return tls_receive();
    netio_addr from;
    bool answer = opt.listen && opt.datagrams;
    ptrdiff_t n = answer ? netio_recvfrom(ends[PEER].s, down.data, sizeof down.data, &from, 0)
                         : netio_recv(ends[PEER].s, down.data, sizeof down.data, 0);
    if (n == NETIO_EAGAIN) return 0;
    down.ended = n == NETIO_EOF;
    if (n < 0) return down.ended ? 0 : complain(opt.address, n);
    if (answer) {
        bool known = netio_addr_equal(&from, &peer);
        if (!known && !opt.keep && netio_addr_family(&peer) != 0) return 0; // not our client
        if (!known && opt.verbose) report("client", &from);
        peer = from;
    }
    down.len = (size_t)n < sizeof down.data ? (size_t)n : sizeof down.data;
    moved++; // an empty datagram is no silence either
    return 0;
}

static int to_output(void)
{
    ptrdiff_t n = stdio_write(down.data + down.off, down.len - down.off);
    if (n == NETIO_EAGAIN) return 0;
    if (n < 0) return complain("output", n);
    took(&down, n);
    return 0;
}

static unsigned peer_events(void)
{
    bool send = tls ? netio_tls_out(tls).len > 0 : up.len > 0;
    return (!down.ended && !down.len ? NETIO_EV_READ : 0u) | (send ? NETIO_EV_WRITE : 0u);
}

static void half_close(void)
{
    if (tls) netio_tls_shutdown(tls);
    else netio_shutdown(ends[PEER].s, NETIO_SHUT_WRITE); // a peer that is gone shows later
}

static void end_output(void)
{
    if (!output_open) return;
    output_open = false;
    netio_poller_remove(poller, ends[TO_OUTPUT].s);
    stdio_close();
}

// Copy both ways until the end. Returns 0 or what failed, which was told already.
static int talk(netio_socket s)
{
    bool peer_ends_it = opt.keep || stdio_typed(), half_closed = false;
    int64_t by = netio_deadline(opt.limit_ms);
    up.off = up.len = down.off = down.len = 0;
    down.ended = false;
    memset(&peer, 0, sizeof peer);
    ends[PEER] = (struct end){s, 0, true};

    int err = netio_poller_add(poller, s, 0, &ends[PEER]);
    if (err == 0 && tls_ctx) err = tls_open();
    while (err == 0) {
        if (tls) err = tls_turn();
        if (err < 0) break;
        bool sent = up.ended && !up.len && (!tls || tls_ready);
        bool received = down.ended && !down.len;
        bool known = !opt.listen || !opt.datagrams || netio_addr_family(&peer) != 0;
        if (sent && opt.half_close && !half_closed) {
            if (opt.datagrams) break;
            half_closed = true;
            half_close();
        }
        if (received && !opt.keep) end_output();
        if (received && (sent || (peer_ends_it && !up.len))) break;

        unsigned ready[ENDS] = {0};
        uint64_t before = moved;
        err = watch(&ends[FROM_INPUT], !up.ended && !up.len && known ? NETIO_EV_READ : 0);
        if (err == 0) err = watch(&ends[TO_OUTPUT], down.len ? NETIO_EV_WRITE : 0);
        if (err == 0) err = watch(&ends[PEER], peer_events());
        if (err == 0) err = await(ready, by);
        if (err == NETIO_ETIMEDOUT && !opt.datagrams) complain("nothing came or went", err);
        if (err == NETIO_ECANCELED && !opt.datagrams && !opt.keep) complain("interrupted", err);

        if (err == 0 && ready[FROM_INPUT]) err = from_input();
        if (err == 0 && (ready[PEER] & NETIO_EV_WRITE)) err = to_peer();
        if (err == 0 && (ready[PEER] & NETIO_EV_READ)) err = from_peer();
        if (err == 0 && ready[TO_OUTPUT]) err = to_output();
        if (moved != before) by = netio_deadline(opt.limit_ms);
    }
    watch(&ends[FROM_INPUT], 0);
    watch(&ends[TO_OUTPUT], 0);
    if (tls) tls_close();
    netio_poller_remove(poller, s);
    ends[PEER].events = 0;
    if (opt.datagrams && (err == NETIO_ETIMEDOUT || err == NETIO_ECANCELED)) return 0;
    return err;
}

//------------------------------------------------------------------------------------------------
// Dial, listen
//------------------------------------------------------------------------------------------------

static int dial(void)
{
    netio_error errors[1 + 16]; // the verdict, then one for each address that was tried
    netio_socket_opts opts = {.type = opt.datagrams ? NETIO_DGRAM : NETIO_STREAM,
                              .family = opt.family,
                              .local = opt.local[0] ? opt.local : NULL,
                              .errors = errors,
                              .error_cap = sizeof errors / sizeof errors[0]};
    netio_socket s;
    netio_addr a;

    int err = netio_connect(&s, opt.address, &opts, opt.limit_ms);
    if (err < 0) {
        fprintf(stderr, "nc: %s\n", errors[0].text);
        for (size_t i = 1; i < opts.error_cap && errors[2].err < 0; i++) // one attempt is [0] again
            if (errors[i].err < 0) fprintf(stderr, "    tried %s\n", errors[i].text);
        return err;
    }
    if (opt.verbose && netio_peer_addr(s, &a) == 0) report("connected to", &a);
    err = talk(s);
    bool known = netio_local_addr(s, &a) == 0;
    netio_close(&s);
    if (known) netio_unix_unlink(&a); // only a path is removed: that of -u -U -s
    return err;
}

static int next_client(netio_socket listener, netio_socket *s)
{
    netio_addr from;
    unsigned ready[ENDS];
    int64_t by = netio_deadline(opt.keep ? -1 : opt.limit_ms);
    ends[PEER] = (struct end){listener, 0, true};
    int err = netio_poller_add(poller, listener, 0, &ends[PEER]);
    if (err == 0) err = watch(&ends[PEER], NETIO_EV_READ);
    while (err == 0) {
        err = await(ready, by);
        if (err < 0) break;
        err = netio_accept(s, listener, &from, 0);
        if (err != NETIO_EAGAIN) break;
        err = 0; // it left meanwhile
    }
    netio_poller_remove(poller, listener);
    if (err == 0 && opt.verbose) report("client", &from);
    if (err < 0 && err != NETIO_ECANCELED) complain(opt.address, err);
    return err;
}

static int serve(void)
{
    netio_socket_opts opts = {.family = opt.family};
    netio_socket s, listener;
    netio_addr local;
    int err = opt.datagrams ? netio_bind(&listener, opt.address, &opts)
                            : netio_listen(&listener, opt.address, &opts);
    if (err == 0) err = netio_local_addr(listener, &local);
    if (err < 0) return complain(opt.address, err);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    size_t end = strlen(opt.address);
    if (opt.verbose || (end >= 2 && strcmp(opt.address + end - 2, ":0") == 0))
        report("listening on", &local);

    if (opt.datagrams) err = talk(listener);
    while (!opt.datagrams && !stopping) {
        err = next_client(listener, &s);
        if (err == NETIO_ECANCELED) err = 0;
        if (err < 0 || stopping) break;
        if (!opt.keep) netio_close(&listener); // the others are refused
        err = talk(s);
        netio_close(&s);
        if (!opt.keep) break;
        err = 0; // was told; the next client is another story
    }
    netio_close(&listener);
    netio_unix_unlink(&local); // refuses what is no path
    return err;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: nc [-46NUuv] [-s HOST] [-p PORT] [-w SECONDS] [TLS] HOST PORT\n"
                        "       nc -l [-46NUkuv] [-w SECONDS] [TLS] [HOST] PORT\n"
                        "       TLS: -c [-R CA] [-C CERTIFICATE] [-K KEY] [-e NAME]\n");
        return 2;
    }
    if (opt.tls && tls_setup() < 0) return 1;
    int err = netio_poller_open(&poller, NETIO_BACKEND_AUTO);
    if (err == 0) err = stdio_open(&ends[FROM_INPUT].s, &ends[TO_OUTPUT].s);
    if (err < 0) return complain("start", err) < 0;
    for (int i = FROM_INPUT; i <= TO_OUTPUT; i++)
        ends[i].polled = netio_poller_add(poller, ends[i].s, 0, &ends[i]) == 0;
    if (!stdio_pollable()) ends[FROM_INPUT].polled = false;

    err = opt.listen ? serve() : dial();
    end_output();
    netio_poller_close(poller);
    netio_tls_ctx_unref(tls_ctx);
    return err < 0;
}
