// A load generator for echo servers: how many connections, messages and bytes a second, and how
// long an echo takes, as percentiles.
//
//     load [OPTION NUMBER]... HOST:PORT
//
// Each connection keeps a number of messages in flight: what came back is replaced by a new one. So
// this measures a server that is always busy, and a slow one gets less to do; it is no measure of
// what users see who come whether it is slow or not. All echoes are compared with what was sent.
// With --udp an echo that does not come within the limit is lost, and counted.
//
// The exit code is 0 if all went well, 1 if an echo was wrong, or connections failed or ended
// early: then the report tells what was measured until that. Ctrl-C ends it before its time.
//
// Build  cc load.c -o load                     (Windows: add -lws2_32)
// Try    ./tcp_echo_server 127.0.0.1:7777      and: ./load --connections 1000 127.0.0.1:7777
//        ./udp_echo 127.0.0.1:7777             and: ./load --udp --flight 32 127.0.0.1:7777
#define NETIO_IMPLEMENTATION
#include "../../netio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PERIOD = 65521, SIZE_MOST = 1 << 20, DIALS_MAX = 64, SEQUENCE = 8, TICK_MS = 20 };

static double connections = 50, flight = 1, size = 64, seconds = 5, limit_ms = 500;
static bool udp;

static const struct {
    const char *name, *what;
    double *value, min, max;
} options[] = {
    {"--connections", "connections; with --udp, sockets", &connections, 1, 100000},
    {"--flight", "messages in flight on each", &flight, 1, 10000},
    {"--size", "bytes of a message", &size, 1, SIZE_MOST},
    {"--seconds", "how long", &seconds, 0.05, 1e6},
    {"--limit", "--udp: milliseconds until an echo is lost", &limit_ms, 1, 60000},
};
enum { OPTIONS = sizeof options / sizeof *options };

// TCP: the messages are pieces of one endless stream, and come back in order. UDP: a message is a
// number and pieces of that stream, and may come back in any order, twice, or never.
struct peer {
    netio_conn conn;
    netio_udp socket;
    bool open, wrong;        // wrong: the echo that is being received
    uint64_t at;             // where this one's stream begins
    uint64_t sent, received; // TCP: bytes. UDP: messages
    struct flying *flying;   // message n is in place n % flight
};

struct flying {
    uint64_t sent_us; // 0: not under way
    uint64_t number;  // UDP
};

static netio_loop *loop;
static struct peer *peers;
static char stream[PERIOD + SIZE_MOST]; // repeats after PERIOD bytes, a prime: what moves is seen
static const char *target;
static size_t peer_count, dialed, settled, opened, under_way;
static bool running, ending;
static uint64_t dial_us, start_us, end_us;
static uint64_t echoes, mismatched, lost, late, ended_early, failed;
static netio_error first_error;

//------------------------------------------------------------------------------------------------
// Times: counted in classes, each at most a 64th as wide as its times are long
//------------------------------------------------------------------------------------------------

enum { STEP = 64, CLASSES = 40 * STEP };

static uint64_t times[CLASSES], time_min = UINT64_MAX, time_max, time_sum;

static void count_time(uint64_t us)
{
    int shift = 0;
    while (us >> shift >= 2 * STEP) shift++;
    size_t i = (size_t)shift * STEP + (size_t)(us >> shift);
    times[i < CLASSES ? i : CLASSES - 1]++;
    if (us < time_min) time_min = us;
    if (us > time_max) time_max = us;
    time_sum += us;
}

// The time that `part` of all echoes took at most.
static double percentile(double part)
{
    uint64_t seen = 0;
    for (size_t i = 0; i < CLASSES; i++) {
        seen += times[i];
        if (seen == 0 || (double)seen < part * (double)echoes) continue;
        size_t shift = i < 2 * STEP ? 0 : i / STEP - 1;
        uint64_t most = (((uint64_t)(i - shift * STEP) + 1) << shift) - 1;
        return (double)(most < time_max ? most : time_max);
    }
    return 0;
}

//------------------------------------------------------------------------------------------------
// The end
//------------------------------------------------------------------------------------------------

static void stop(void *user)
{
    (void)user;
    netio_loop_stop(loop);
}

// No new messages; what is under way has as long as a lost one.
static void end(void *user)
{
    (void)user;
    if (ending) return;
    ending = true;
    running = false;
    end_us = netio_now_us();
    if (under_way == 0 ||
        netio_timer_once(NULL, loop, udp ? (int)limit_ms : 2000, stop, NULL) < 0) {
        netio_loop_stop(loop);
    }
}

static void landed(void)
{
    if (--under_way == 0 && ending) netio_loop_stop(loop);
}

static void keep_error(const netio_error *why)
{
    if (!first_error.err) first_error = *why;
}

//------------------------------------------------------------------------------------------------
// TCP
//------------------------------------------------------------------------------------------------

static void send_message(struct peer *p)
{
    size_t len = (size_t)size;
    p->flying[p->sent / len % (size_t)flight].sent_us = netio_now_us();
    if (netio_conn_write(p->conn, stream + (p->at + p->sent) % PERIOD, len) < 0) return;
    p->sent += len;
    under_way++;
}

static void on_data(netio_conn c, const void *data, size_t len)
{
    struct peer *p = netio_conn_user(c);
    const char *at = data;
    size_t whole = (size_t)size;
    while (len > 0 && p->received < p->sent) {
        size_t n = whole - (size_t)(p->received % whole);
        if (n > len) n = len;
        if (memcmp(at, stream + (p->at + p->received) % PERIOD, n) != 0) p->wrong = true;
        uint64_t sent_us = p->flying[p->received / whole % (size_t)flight].sent_us;
        p->received += n;
        at += n;
        len -= n;
        if (p->received % whole) break; // the rest is to come
        count_time(netio_now_us() - sent_us);
        echoes++;
        mismatched += p->wrong;
        p->wrong = false;
        landed();
        if (running) send_message(p);
    }
    mismatched += len > 0; // more than was sent
}

static void on_close(netio_conn c, int err);
static void on_open(netio_conn c);

static void dial_more(void)
{
    static const netio_handler tcp = {.on_open = on_open, .on_data = on_data, .on_close = on_close};
    while (dialed < peer_count && dialed < settled + DIALS_MAX) {
        struct peer *p = &peers[dialed++];
        netio_dial_opts opts = {.timeout_ms = 10000};
        opts.conn.user = p;
        opts.conn.write_queue_max = (size_t)(size * flight) + 1;
        if (opts.conn.write_queue_max < 1 << 20) opts.conn.write_queue_max = 1 << 20;
        opts.conn.read_always = true; // or both sides could wait for the other to read
        int err = netio_conn_dial(&p->conn, loop, target, &tcp, &opts);
        if (err == 0) continue;
        netio_error why = {.err = err};
        snprintf(why.text, sizeof why.text, "%s: %s", target, netio_strerror(err));
        keep_error(&why);
        failed++;
        settled++;
    }
}

// All have been dialed: some may have failed.
static void start(void)
{
    double took = (double)(netio_now_us() - dial_us) / 1e6;
    printf("connections  %u of %u in %.1f ms, %.0f a second\n", (unsigned)opened,
           (unsigned)peer_count, took * 1000, took > 0 ? (double)opened / took : 0);
    fflush(stdout);
    start_us = netio_now_us();
    running = true;
    for (size_t i = 0; i < peer_count; i++) {
        for (int n = 0; peers[i].open && n < (int)flight; n++) send_message(&peers[i]);
    }
    if (opened == 0 || netio_timer_once(NULL, loop, (int)(seconds * 1000), end, NULL) < 0)
        end(NULL);
}

static void one_settled(void)
{
    settled++;
    dial_more();
    if (settled == peer_count) start();
}

static int start_tcp(void)
{
    dial_more();
    if (settled == peer_count) start(); // not one could be tried
    return 0;
}

static void on_open(netio_conn c)
{
    struct peer *p = netio_conn_user(c);
    p->open = true;
    opened++;
    one_settled();
}

static void on_close(netio_conn c, int err)
{
    struct peer *p = netio_conn_user(c);
    netio_error why = {.err = err};
    if (netio_conn_error(c, &why) < 0) snprintf(why.text, sizeof why.text, "the server closed");
    if (ending) return;
    keep_error(&why);
    if (!p->open) {
        failed++;
        one_settled();
        return;
    }
    p->open = false;
    ended_early++;
    under_way -= (size_t)((p->sent - p->received + (uint64_t)size - 1) / (uint64_t)size);
    if (--opened == 0 && running) end(NULL);
}

//------------------------------------------------------------------------------------------------
// UDP
//------------------------------------------------------------------------------------------------

// The number of a message tells its place, too: number % flight.
static void put_number(char out[SEQUENCE], uint64_t number)
{
    for (int i = 0; i < SEQUENCE; i++) out[i] = (char)(number >> 8 * i & 0xFF);
}

static uint64_t get_number(const char *in)
{
    uint64_t number = 0;
    for (int i = SEQUENCE; i-- > 0;) number = number << 8 | (unsigned char)in[i];
    return number;
}

static void send_datagram(struct peer *p, struct flying *f)
{
    static char message[SIZE_MOST];
    size_t len = (size_t)size;
    f->number += (uint64_t)flight;
    put_number(message, f->number);
    memcpy(message + SEQUENCE, stream + (p->at + f->number) % PERIOD, len - SEQUENCE);
    f->sent_us = netio_now_us();
    under_way++;
    p->sent++;
    netio_udp_send(p->socket, message, len, NULL); // if it fails, one more that got lost
}

static void take_datagram(struct peer *p, const netio_datagram *m)
{
    const char *data = m->data;
    uint64_t number = m->len >= SEQUENCE ? get_number(data) : 0;
    struct flying *f = &p->flying[number % (uint64_t)flight];
    if (m->len != (size_t)size || m->truncated ||
        memcmp(data + SEQUENCE, stream + (p->at + number) % PERIOD, m->len - SEQUENCE) != 0) {
        mismatched++; // and the message that it was is lost
        return;
    }
    if (f->number != number || f->sent_us == 0) {
        late++; // or came twice
        return;
    }
    count_time(netio_now_us() - f->sent_us);
    echoes++;
    f->sent_us = 0;
    landed();
    if (running) send_datagram(p, f);
}

static void on_datagrams(netio_udp u, netio_datagram *msgs, size_t count)
{
    struct peer *p = netio_udp_user(u);
    for (size_t i = 0; i < count; i++) take_datagram(p, &msgs[i]);
}

// An ICMP error: nobody listens there any more.
static void on_error(netio_udp u, int err)
{
    netio_error why = {.err = err};
    (void)u;
    if (ending) return;
    snprintf(why.text, sizeof why.text, "%s: %s", target, netio_strerror(err));
    keep_error(&why);
    ended_early++;
    end(NULL);
}

static void on_tick(void *user)
{
    uint64_t now_us = netio_now_us(), limit_us = (uint64_t)(limit_ms * 1000);
    (void)user;
    for (size_t i = 0; i < peer_count; i++) {
        for (size_t n = 0; n < (size_t)flight; n++) {
            struct flying *f = &peers[i].flying[n];
            if (f->sent_us == 0 || now_us - f->sent_us < limit_us) continue;
            f->sent_us = 0;
            lost++;
            landed();
            if (running) send_datagram(&peers[i], f);
        }
    }
}

static int start_udp(void)
{
    static const netio_udp_handler handler = {.on_datagrams = on_datagrams, .on_error = on_error};
    char text[NETIO_ADDR_TEXT];
    netio_addr addr;
    ptrdiff_t n = netio_resolve(target, &addr, 1, NULL, 5000);
    if (n >= 0) n = netio_addr_format(&addr, text, sizeof text);
    if (n < 0) return (int)n;
    netio_udp_opts opts = {.peer = text, .datagram_max = 2048};
    if (size > 2048) opts.datagram_max = (size_t)size;
    opts.write_queue_max = (size_t)(size * flight) + (256 << 10);
    for (size_t i = 0; i < peer_count; i++) {
        opts.user = &peers[i];
        int err = netio_udp_open(&peers[i].socket, loop, NULL, &handler, &opts);
        if (err < 0) return err;
    }
    start_us = netio_now_us();
    running = true;
    for (size_t i = 0; i < peer_count; i++) {
        for (size_t k = 0; k < (size_t)flight; k++) {
            peers[i].flying[k].number = k; // the first one sent is k + flight
            send_datagram(&peers[i], &peers[i].flying[k]);
        }
    }
    int err = netio_timer_every(NULL, loop, TICK_MS, on_tick, NULL);
    return err < 0 ? err : netio_timer_once(NULL, loop, (int)(seconds * 1000), end, NULL);
}

//------------------------------------------------------------------------------------------------
// The program
//------------------------------------------------------------------------------------------------

static bool report(void)
{
    double took = (double)(end_us - start_us) / 1e6;
    double rate = took > 0 ? (double)echoes / took : 0;
    uint64_t unanswered = udp ? 0 : under_way;
    if (udp) lost += under_way;
    printf("echoes       %.0f in %.2f s: %.0f a second, %.1f MB/s each way\n", (double)echoes, took,
           rate, rate * size / 1e6);
    if (echoes) {
        printf("latency us   min %.0f, average %.0f, p50 %.0f, p90 %.0f, p99 %.0f, p99.9 %.0f, "
               "max %.0f\n",
               (double)time_min, (double)time_sum / (double)echoes, percentile(0.5),
               percentile(0.9), percentile(0.99), percentile(0.999), (double)time_max);
    }
    printf("mismatched   %.0f\n", (double)mismatched);
    if (udp) {
        double all = (double)(echoes + lost);
        printf("lost         %.0f of %.0f (%.3f %%); %.0f late or twice\n", (double)lost, all,
               all > 0 ? 100 * (double)lost / all : 0, (double)late);
    }
    if (failed || ended_early || unanswered) {
        printf("PARTIAL      %u not connected, %u ended early, %u echoes did not come: %s\n",
               (unsigned)failed, (unsigned)ended_early, (unsigned)unanswered,
               first_error.err ? first_error.text : "time is over");
    }
    return echoes > 0 && !mismatched && !failed && !ended_early && !unanswered;
}

static int usage(void)
{
    fprintf(stderr, "usage: load [--udp] [OPTION NUMBER]... HOST:PORT\n");
    for (int i = 0; i < OPTIONS; i++) {
        fprintf(stderr, "  %-14s %s (%g)\n", options[i].name, options[i].what, *options[i].value);
    }
    return 2;
}

static bool parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int k = 0;
        if (strcmp(argv[i], "--udp") == 0) {
            udp = true;
            continue;
        }
        if (argv[i][0] != '-') {
            target = argv[i];
            continue;
        }
        while (k < OPTIONS && strcmp(argv[i], options[k].name) != 0) k++;
        if (k == OPTIONS || ++i == argc) return false;
        double value = strtod(argv[i], NULL);
        if (!(value >= options[k].min && value <= options[k].max)) return false;
        *options[k].value = value;
    }
    if (udp && (size < SEQUENCE || size > 65507)) return false;
    return target != NULL && connections * flight <= 1e7;
}

static int prepare(void)
{
    uint32_t random = 1;
    for (size_t i = 0; i < PERIOD; i++) {
        random = random * 1664525u + 1013904223u;
        stream[i] = (char)(random >> 24);
    }
    for (size_t i = PERIOD; i < sizeof stream; i++) stream[i] = stream[i - PERIOD];
    peer_count = (size_t)connections;
    peers = calloc(peer_count, sizeof *peers);
    if (!peers) return NETIO_ENOMEM;
    for (size_t i = 0; i < peer_count; i++) {
        peers[i].at = i * 7919; // no two alike
        peers[i].flying = calloc((size_t)flight, sizeof *peers[i].flying);
        if (!peers[i].flying) return NETIO_ENOMEM;
    }
    return netio_loop_create(&loop, NULL);
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) return usage();
    int err = prepare();
    if (err == 0) err = netio_signal_start(NULL, loop, SIGINT, end, NULL);
    dial_us = start_us = end_us = netio_now_us();
    if (err == 0) err = udp ? start_udp() : start_tcp();
    if (err == 0) err = netio_loop_run(loop);
    if (err < 0) {
        fprintf(stderr, "load: %s: %s\n", target, netio_strerror(err));
        return 1;
    }
    return report() ? 0 : 1; // the end of the program closes the connections
}
