// Calls from one program to another, by lines "id:COMMAND:text" that netcat can type. The answers
// "id:OK:result" come in any order. One program, five modes:
//
//     rpc serve ADDRESS     answers ECHO, UPPER, REVERSE, AFTER:ms:text (that much later), and
//                           "id:QUERY text". A line without an id, or without text after one of
//                           these words, is dropped and counted; other words are told to be unknown
//     rpc call SERVER,...   makes the calls on its input, lines like "UPPER:text", or --count of
//                           its own: many at once, over a few connections that its workers share
//     rpc turns SERVER      a message at a time: the next goes out when the last is acknowledged
//     rpc queue ADDRESS     hands the jobs on its input, lines like "UPPER:text", to those who work
//     rpc work SERVER,...   connects to a queue and does what it is told
//
// What it does against bad peers, bad links and restarts:
//   - a call has a time limit of its own; a late answer is discarded, and its id rests that long.
//     With its connection all that waits is lost, and said so: each call ends exactly once
//   - connections that are lost come back, with growing pauses; of several servers the first is
//     preferred, and the others stand in for it; idle connections are pinged
//   - a job whose worker is lost, or too slow, is given to another; after three times it is parked:
//     it may be what the workers die of. Each result counts once
// With --binary (serve, call) messages have a header of 5 bytes, length and type; the answer to
// type n is of type n + 1, modulo 256, with the same payload. With --ack, serve answers "ACK: " and
// the line, for turns. SIGINT and SIGTERM end every mode.
//
// Build  cc rpc.c -o rpc                               (Windows: add -lws2_32)
// Try    ./rpc serve 127.0.0.1:9100                    and: nc 127.0.0.1 9100, then 2:UPPER:abc
//        ./rpc call --count 100000 127.0.0.1:9100,127.0.0.1:9101  and restart the server
//        printf 'UPPER:a\nAFTER:500:b\n' | ./rpc queue :9200         and: ./rpc work 127.0.0.1:9200
#define NETIO_IMPLEMENTATION
#include "../../netio.h"
#include "../common/calls.h"
#include "../common/link_pool.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE_MOST = 4096,      // bytes of a message; answers may be a little longer
    INPUT_MOST = 100000,   // lines of input
    CLIENT_MOST = 1000,    // connections to a server or queue
    IDLE_MS = 300000,      // after which a server closes one; a client pings before that
    LATER_MOST = 10000,    // answers of AFTER under way
    LATER_MS_MOST = 60000, // and how long
    TRIES_MOST = 3         // of a job
};

static double link_max = 5, worker_count = 10, depth = 16, call_count = 0, timeout_s = 2;
static double wait_s = 10, tries = 0, probe_s = 5, ping_s = 10;
static bool binary, ack, may_die;

static const struct {
    const char *name, *what;
    double *value;
} options[] = {
    {"--links", "call: connections at most", &link_max},
    {"--workers", "call: users of them, each of which keeps", &worker_count},
    {"--depth", "calls in flight over the one that it has", &depth},
    {"--count", "call: make so many instead of reading them; 0: read", &call_count},
    {"--timeout", "call, turns, queue: seconds for an answer", &timeout_s},
    {"--wait", "call: seconds for a connection", &wait_s},
    {"--tries", "call, work: rounds over all servers before giving up; 0: no end", &tries},
    {"--probe", "call, work: seconds between looks for a better server", &probe_s},
    {"--ping", "call: seconds of silence before a ping", &ping_s},
};
enum { OPTIONS = sizeof options / sizeof *options };

static netio_loop *loop;
static char *servers[LINK_SERVERS_MAX];
static size_t server_count;
static unsigned answered_count, dropped_count;

static char *inputs[INPUT_MOST];
static size_t input_count;

static netio_framing framing(void)
{
    netio_framing f = netio_framing_line(LINE_MOST + 64);
    if (binary) {
        f = netio_framing_length(4, LINE_MOST + 64);
        f.header = 5;
    }
    return f;
}

// One message, as a line or with its header.
static int send_message(netio_conn c, const char *text, size_t len, unsigned type)
{
    uint8_t header[5] = {0}; // the length is filled in
    netio_frame f = {0};
    if (!binary) return netio_conn_send(c, text, len);
    header[4] = (uint8_t)type;
    f.header = header;
    f.header_len = sizeof header;
    f.data = (const uint8_t *)text;
    f.len = len;
    return netio_conn_send_frame(c, &f);
}

static bool read_input(void)
{
    char line[LINE_MOST + 2];
    while (fgets(line, sizeof line, stdin)) {
        size_t len = strcspn(line, "\r\n");
        bool fits = len <= LINE_MOST - 16 && input_count < INPUT_MOST;
        line[len] = 0;
        if (len == 0) continue;
        char *copy = fits ? malloc(len + 1) : NULL;
        if (!copy) {
            fprintf(stderr, "rpc: line %u of the input is too long, or too much\n",
                    (unsigned)input_count + 1);
            return false;
        }
        memcpy(copy, line, len + 1);
        inputs[input_count++] = copy;
    }
    return true;
}

static void free_input(void)
{
    while (input_count > 0) free(inputs[--input_count]);
}

// Nothing that comes from the network steers a terminal or begins another line.
static void print_result(const char *call, const char *result, size_t len)
{
    printf("%s -> ", call);
    for (size_t i = 0; i < len; i++) {
        unsigned char ch = (unsigned char)result[i];
        if (ch < ' ' || ch == 127) printf("\\x%02x", ch);
        else putchar(ch);
    }
    putchar('\n');
    fflush(stdout);
}

//------------------------------------------------------------------------------------------------
// serve, and what a worker does
//------------------------------------------------------------------------------------------------

static void answer(netio_conn c, uint32_t id, const char *status, const char *text, size_t len)
{
    char line[LINE_MOST + 64];
    int head = snprintf(line, 32, "%u:%s", (unsigned)id, status);
    memcpy(line + head, text, len);
    answered_count++;
    // A client is not read while it takes no answers; but those of AFTER come all the same.
    if (netio_conn_send(c, line, (size_t)head + len) == NETIO_ENOBUFS) netio_conn_abort(c);
}

static void do_echo(netio_conn c, uint32_t id, char *text, size_t len)
{
    answer(c, id, "OK:", text, len);
}

static void do_upper(netio_conn c, uint32_t id, char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) text[i] = (char)toupper((unsigned char)text[i]);
    answer(c, id, "OK:", text, len);
}

static void do_reverse(netio_conn c, uint32_t id, char *text, size_t len)
{
    for (size_t i = 0; i < len / 2; i++) {
        char swap = text[i];
        text[i] = text[len - 1 - i];
        text[len - 1 - i] = swap;
    }
    answer(c, id, "OK:", text, len);
}

struct later {    // an answer of AFTER
    netio_conn c; // stale if it has ended
    struct later *next, **link;
    uint32_t id;
    size_t len;
    char text[1];
};

static struct later *laters;
static int later_count;

static void later_end(struct later *l)
{
    *l->link = l->next;
    if (l->next) l->next->link = l->link;
    later_count--;
    free(l);
}

// A client that sends no more gets what is still to come. The mark is its user pointer.
static void close_if_done(netio_conn c)
{
    if (netio_conn_user(c) != &laters) return;
    for (struct later *l = laters; l; l = l->next) {
        if (netio_conn_same(l->c, c)) return;
    }
    netio_conn_close(c);
}

static void serve_eof(netio_conn c)
{
    netio_conn_set_user(c, &laters);
    close_if_done(c);
}

static void answer_now(void *user)
{
    struct later *l = user;
    netio_conn c = l->c;
    answer(c, l->id, "OK:", l->text, l->len);
    later_end(l);
    close_if_done(c);
}

static void do_after(netio_conn c, uint32_t id, char *text, size_t len)
{
    char *end;
    long ms = strtol(text, &end, 10);
    size_t rest = len - (size_t)(end - text);
    if (ms < 0 || ms > LATER_MS_MOST || rest == 0 || *end != ':' || later_count == LATER_MOST) {
        answer(c, id, "ERROR:", "not now", 7);
        return;
    }
    struct later *l = malloc(sizeof *l + rest);
    if (!l || netio_timer_once(NULL, loop, (int)ms, answer_now, l) < 0) {
        answer(c, id, "ERROR:", "no memory", 9);
        free(l);
        return;
    }
    l->c = c;
    l->id = id;
    l->len = rest - 1;
    memcpy(l->text, end + 1, rest - 1);
    l->next = laters;
    l->link = &laters;
    if (l->next) l->next->link = &l->next;
    laters = l;
    later_count++;
}

static void do_die(netio_conn c, uint32_t id, char *text, size_t len)
{
    if (may_die) exit(3); // as by a bug, to see what becomes of such a job
    (void)text;
    (void)len;
    answer(c, id, "ERROR:", "Unknown command", 15);
}

static const struct {
    const char *word;
    void (*run)(netio_conn c, uint32_t id, char *text, size_t len);
} commands[] = {{"ECHO", do_echo},
                {"UPPER", do_upper},
                {"REVERSE", do_reverse},
                {"AFTER", do_after},
                {"DIE", do_die}};
enum { COMMANDS = sizeof commands / sizeof *commands };

static bool is_word(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && memcmp(text, word, len) == 0;
}

static void serve_line(netio_conn c, const netio_frame *f)
{
    char text[LINE_MOST + 64];
    uint32_t id;
    netio_buf rest;
    if (calls_read_id(f->data, f->len, &id, &rest) < 0 || rest.len > LINE_MOST) {
        dropped_count++;
        return;
    }
    memcpy(text, rest.data, rest.len);
    text[rest.len] = 0;
    if (strncmp(text, "QUERY ", 6) == 0) {
        answer(c, id, "RESULT for ", text, rest.len);
        return;
    }
    size_t len = strcspn(text, ":");
    for (int i = 0; i < COMMANDS; i++) {
        if (!is_word(text, len, commands[i].word)) continue;
        if (text[len] == ':') commands[i].run(c, id, text + len + 1, rest.len - len - 1);
        else dropped_count++; // cut short: no answer can be right
        return;
    }
    if (text[len] == ':') answer(c, id, "ERROR:", "Unknown command", 15);
    else answer(c, id, "", "UNKNOWN COMMAND", 15);
}

static void serve_binary(netio_conn c, const netio_frame *f)
{
    answered_count++;
    send_message(c, (const char *)f->data, f->len, f->header[4] + 1u); // 255: 0
}

static void serve_ack(netio_conn c, const netio_frame *f)
{
    char line[LINE_MOST + 128];
    memcpy(line, "ACK: ", 5);
    memcpy(line + 5, f->data, f->len);
    answered_count++;
    netio_conn_send(c, line, 5 + f->len);
}

//------------------------------------------------------------------------------------------------
// call
//------------------------------------------------------------------------------------------------

// One of those who share the pool: it borrows a link, keeps calls in flight over it for a while,
// lets the last of them end, and gives it back.
struct worker {
    link_client *link; // NULL: it waits for one
    int flying, quota; // calls in flight; to begin over this link
    bool going;
};

struct call {
    struct worker *worker;
    size_t number;
};

static link_pool *pool;
static struct worker *workers;
static int working;          // workers that have not finished
static size_t total, next;   // calls; the next to be made
static unsigned char *ended; // by call: how often
static size_t ends, good, wrong, twice, reset, late, other;
static int gave_up; // the error with which a link did

static void worker_go(struct worker *w);

static size_t call_text(size_t number, char *out, size_t cap)
{
    if (input_count) return (size_t)snprintf(out, cap, "%s", inputs[number]);
    return (size_t)snprintf(out, cap, "ECHO:call %u", (unsigned)number);
}

static void call_ended(size_t number, int err, const char *result, size_t len)
{
    char want[64];
    ends++;
    if (ended[number]++) twice++;
    if (err == 0) good++;
    else if (err == NETIO_ETIMEDOUT) late++;
    else if (err == NETIO_ECONNRESET) reset++;
    else other++;
    if (err < 0) result = netio_strerror(err), len = strlen(result);
    if (input_count) {
        print_result(inputs[number], result, len);
    } else if (err == 0) {
        snprintf(want, sizeof want, "%s:call %u", binary ? "ECHO" : "OK", (unsigned)number);
        wrong += !is_word(result, len, want);
    }
}

static void on_answer(void *user, int err, const void *result, size_t len)
{
    struct call *call = user;
    struct worker *w = call->worker;
    call_ended(call->number, err, result, len);
    free(call);
    w->flying--;
    if (err < 0 && err != NETIO_ETIMEDOUT) w->quota = 0; // nothing more over this link
    worker_go(w);
}

static int call_begin(struct worker *w, size_t number)
{
    char line[LINE_MOST];
    uint32_t id;
    calls *table = link_user(w->link);
    struct call *call = malloc(sizeof *call);
    if (!call) return NETIO_ENOMEM;
    call->worker = w;
    call->number = number;
    int err = calls_add(table, NULL, &id, netio_loop_now_ms(loop), (int)(timeout_s * 1000),
                        on_answer, call);
    if (err < 0) {
        free(call);
        return err;
    }
    w->flying++;
    size_t head = (size_t)snprintf(line, 16, "%u:", (unsigned)id);
    size_t len = head + call_text(number, line + head, sizeof line - head);
    err = send_message(link_conn(w->link), line, len, 1);
    if (err < 0) calls_finish(table, id, err, NULL, 0);
    return 0;
}

// The end: what nobody will make any more ends as well.
static void worker_done(void)
{
    if (--working > 0) return;
    while (next < total) call_ended(next++, gave_up ? gave_up : NETIO_ECANCELED, NULL, 0);
    netio_loop_stop(loop);
}

static void worker_got(void *user, int err, link_client *l);

static void worker_ask(struct worker *w)
{
    int err = NETIO_ECANCELED;
    if (next < total && !gave_up)
        err = link_pool_acquire(pool, NULL, (int)(wait_s * 1000), worker_got, w);
    if (err < 0) worker_done();
}

// Begin what may begin, and when nothing is in flight any more, give the link back.
static void worker_go(struct worker *w)
{
    if (w->going) return; // one failed at once, in here
    w->going = true;
    while (w->flying < (int)depth && w->quota > 0 && next < total && link_ready(w->link)) {
        size_t number = next++;
        w->quota--;
        int err = call_begin(w, number);
        if (err < 0) call_ended(number, err, NULL, 0);
    }
    w->going = false;
    if (w->flying > 0) return;
    link_pool_release(pool, w->link, false);
    w->link = NULL;
    worker_ask(w);
}

static void worker_got(void *user, int err, link_client *l)
{
    struct worker *w = user;
    if (err == 0) {
        w->link = l;
        w->quota = (int)depth * 8;
        worker_go(w);
    } else {
        if (next < total) call_ended(next++, err, NULL, 0); // it would have been for this one
        worker_ask(w);
    }
}

static void note_up(link_client *l, netio_conn c)
{
    (void)c;
    fprintf(stderr, "rpc: connected to %s\n", link_server(l));
}

static void call_up(link_client *l, netio_conn c)
{
    note_up(l, c);
    calls_opts o = {0};
    calls *table = NULL;
    o.max = (size_t)depth;
    o.late_max = o.max * 8; // enough that no call finds all ids resting
    o.late_ms = (int)(timeout_s * 5000);
    if (!link_user(l) && calls_create(&table, &o) == 0) link_set_user(l, table);
    if (!link_user(l)) netio_conn_abort(c);
}

static void call_down(link_client *l, int err)
{
    (void)err;
    if (link_user(l)) calls_fail(link_user(l), NETIO_ECONNRESET);
}

static void call_failed(link_client *l, int err)
{
    if (!gave_up) fprintf(stderr, "rpc: gave up: %s: %s\n", link_server(l), netio_strerror(err));
    gave_up = err;
}

static void call_ping(link_client *l, netio_conn c)
{
    (void)l;
    send_message(c, "0:ECHO:ping", 11, 1); // no call has the id 0
}

static bool call_may_move(link_client *l) { return calls_get_stats(link_user(l)).waiting == 0; }

static void call_gone(link_client *l)
{
    calls *table = link_user(l);
    link_set_user(l, NULL);
    calls_destroy(table);
}

static void call_frame(netio_conn c, const netio_frame *f)
{
    link_client *l = link_of(c);
    uint32_t id;
    netio_buf rest;
    if ((binary && f->header[4] != 2) || calls_read_id(f->data, f->len, &id, &rest) < 0)
        link_drop(l); // whatever this is, it is no answer
    else if (id > 0) calls_finish(link_user(l), id, 0, rest.data, rest.len);
}

static void expire_one(void *user, netio_conn c)
{
    link_client *l = link_of(c);
    if (link_user(l)) calls_expire(link_user(l), *(uint64_t *)user);
}

static void on_tick(void *user)
{
    uint64_t now_ms = netio_loop_now_ms(loop);
    (void)user;
    netio_conn_each(loop, expire_one, &now_ms);
}

static link_opts link_options(const netio_handler *conn)
{
    link_opts o = {0};
    o.conn = conn;
    o.servers = (const char *const *)servers;
    o.server_count = server_count;
    o.dial.conn.framing = framing();
    o.backoff.base_ms = 100;
    o.backoff.cap_ms = 5000;
    o.backoff.tries_max = (int)tries;
    o.stable_ms = 1000;
    o.probe_ms = (int)(probe_s * 1000);
    o.ping_ms = (int)(ping_s * 1000);
    return o;
}

static int run_call(void)
{
    static const netio_handler conn = {.on_frame = call_frame};
    static const link_handler handler = {.on_up = call_up,
                                         .on_down = call_down,
                                         .on_failed = call_failed,
                                         .on_ping = call_ping,
                                         .may_move = call_may_move};
    link_pool_opts opts = {0};
    opts.link = link_options(&conn);
    opts.max = (size_t)link_max;
    opts.waiters_max = (size_t)worker_count;
    opts.on_gone = call_gone;
    if (call_count < 1 && !read_input()) return NETIO_EMSGSIZE;
    total = call_count < 1 ? input_count : (size_t)call_count;
    working = (int)worker_count;
    ended = calloc(total + 1, 1);
    workers = calloc((size_t)working, sizeof *workers);
    int err = ended && workers ? 0 : NETIO_ENOMEM;
    if (err == 0) err = netio_timer_every(NULL, loop, 2 * CALLS_TICK_MS, on_tick, NULL);
    if (err == 0) err = link_pool_create(&pool, loop, &handler, &opts);
    if (err < 0) return err;
    for (int i = 0; i < (int)worker_count; i++) worker_ask(&workers[i]);
    err = netio_loop_run(loop);
    link_pool_stats s = link_pool_get_stats(pool);
    gave_up = gave_up ? gave_up : NETIO_ECANCELED; // nothing new, should a signal have ended it
    link_pool_destroy(pool);
    printf("%u calls: %u answered, %u timed out, %u reset, %u other; %u wrong, %u ended twice, "
           "%u never; %u links\n",
           (unsigned)total, (unsigned)good, (unsigned)late, (unsigned)reset, (unsigned)other,
           (unsigned)wrong, (unsigned)twice, (unsigned)(total + twice - ends), (unsigned)s.opened);
    return err < 0 ? err : good == total && !wrong ? 0 : 1;
}

//------------------------------------------------------------------------------------------------
// turns: nothing but blocking calls
//------------------------------------------------------------------------------------------------

static int run_turns(void)
{
    netio_socket s;
    netio_stream st;
    netio_decoder d;
    netio_framing lines = netio_framing_line(LINE_MOST + 64);
    netio_frame message = {0}, reply;
    if (!read_input()) return NETIO_EMSGSIZE;
    int err = netio_connect(&s, servers[0], NULL, 5000);
    if (err < 0) return err;
    st = netio_stream_from_socket(s);
    netio_decoder_init(&d, lines, NULL, 0);
    for (size_t i = 0; i < input_count && err == 0; i++) {
        int64_t by = netio_deadline((int)(timeout_s * 1000));
        message.data = (const uint8_t *)inputs[i];
        message.len = strlen(inputs[i]);
        err = netio_stream_write_frame(&st, &lines, &message, netio_deadline_left(by));
        if (err == 0) err = netio_stream_read_frame(&st, &d, &reply, netio_deadline_left(by));
        if (err == NETIO_EAGAIN) err = NETIO_ETIMEDOUT; // see netio_deadline
        if (err == 0 && (reply.len < 4 || memcmp(reply.data, "ACK:", 4) != 0)) err = NETIO_EPROTO;
        if (err < 0) printf("%s -> not acknowledged\n", inputs[i]);
        else print_result(inputs[i], (const char *)reply.data, reply.len);
    }
    netio_decoder_free(&d);
    netio_stream_close(&st);
    return err;
}

//------------------------------------------------------------------------------------------------
// queue and work: here the side that was dialed makes the calls
//------------------------------------------------------------------------------------------------

struct hand { // a worker's connection
    netio_conn c;
    calls *table; // of one call: a job at a time
    struct hand *next, **link;
};

struct job {
    struct hand *hand;
    int tries;
};

static struct hand *hands;
static struct job jobs[INPUT_MOST];
static uint32_t ready[INPUT_MOST]; // jobs to be given out, a ring
static size_t ready_first, ready_count;
static unsigned jobs_done, jobs_parked, jobs_again;

static void give_jobs(void);

static void make_ready(size_t number)
{
    ready[(ready_first + ready_count++) % INPUT_MOST] = (uint32_t)number;
}

static void on_result(void *user, int err, const void *result, size_t len)
{
    struct job *job = user;
    size_t number = (size_t)(job - jobs);
    if (err == 0) {
        jobs_done++;
        printf("%u ", (unsigned)number + 1);
        print_result(inputs[number], result, len);
    } else if (++job->tries < TRIES_MOST) {
        jobs_again++;
        make_ready(number);
    } else {
        jobs_parked++;
        printf("%u %s -> parked: %s\n", (unsigned)number + 1, inputs[number], netio_strerror(err));
    }
    fflush(stdout);
    if (err == NETIO_ETIMEDOUT) netio_conn_abort(job->hand->c); // who knows what it is doing
    if (jobs_done + jobs_parked == input_count) netio_loop_finish(loop, 1000);
    give_jobs();
}

static void give_jobs(void)
{
    for (struct hand *h = hands; h && ready_count > 0; h = h->next) {
        char line[LINE_MOST];
        size_t number = ready[ready_first];
        uint32_t id;
        if (!netio_conn_alive(h->c)) continue;
        if (calls_add(h->table, NULL, &id, netio_loop_now_ms(loop), (int)(timeout_s * 1000),
                      on_result, &jobs[number]) < 0)
            continue; // it has one
        ready_first = (ready_first + 1) % INPUT_MOST;
        ready_count--;
        jobs[number].hand = h;
        int len = snprintf(line, sizeof line, "%u:%s", (unsigned)id, inputs[number]);
        if (netio_conn_send(h->c, line, (size_t)len) < 0) netio_conn_abort(h->c); // comes back
    }
}

static void hand_open(netio_conn c)
{
    calls_opts o = {.max = 1, .late_max = 1, .late_ms = -1};
    struct hand *h = calloc(1, sizeof *h);
    if (!h || calls_create(&h->table, &o) < 0) {
        free(h);
        netio_conn_abort(c);
        return;
    }
    h->c = c;
    netio_conn_set_user(c, h);
    h->next = hands;
    h->link = &hands;
    if (h->next) h->next->link = &h->next;
    hands = h;
    give_jobs();
}

static void hand_frame(netio_conn c, const netio_frame *f)
{
    struct hand *h = netio_conn_user(c);
    uint32_t id;
    netio_buf rest;
    if (h && calls_read_id(f->data, f->len, &id, &rest) == 0)
        calls_finish(h->table, id, 0, rest.data, rest.len);
}

static void hand_close(netio_conn c, int err)
{
    struct hand *h = netio_conn_user(c);
    (void)err;
    if (!h) return;
    *h->link = h->next;
    if (h->next) h->next->link = h->link;
    calls_fail(h->table, NETIO_ECONNRESET);
    calls_destroy(h->table);
    free(h);
}

static void on_hand_tick(void *user)
{
    struct hand *next_one;
    (void)user;
    for (struct hand *h = hands; h; h = next_one) {
        next_one = h->next; // no callback in here takes one out
        calls_expire(h->table, netio_loop_now_ms(loop));
    }
}

static void work_failed(link_client *l, int err)
{
    fprintf(stderr, "rpc: gave up: %s: %s\n", link_server(l), netio_strerror(err));
    gave_up = err;
    netio_loop_stop(loop);
}

static int run_work(void)
{
    static const netio_handler conn = {.on_frame = serve_line};
    static const link_handler handler = {.on_up = note_up, .on_failed = work_failed};
    link_opts opts = link_options(&conn);
    link_client *l;
    int err = link_open(&l, loop, &handler, &opts);
    if (err == 0) err = netio_loop_run(loop);
    if (err == 0) link_close(l);
    return err < 0 ? err : gave_up;
}

//------------------------------------------------------------------------------------------------
// Start
//------------------------------------------------------------------------------------------------

static int run_server(const netio_handler *handler, int idle_ms)
{
    netio_listener_opts opts = {0};
    netio_listener listener;
    netio_addr local;
    char text[NETIO_ADDR_TEXT];
    opts.conn_max = CLIENT_MOST;
    opts.conn.idle_timeout_ms = idle_ms;
    opts.conn.framing = framing();
    int err = netio_listener_open(&listener, loop, servers[0], handler, &opts);
    if (err == 0) err = netio_listener_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, text, sizeof text);
    if (err < 0) return err;
    printf("listening on %s\n", text);
    fflush(stdout);
    return netio_loop_run(loop);
}

static int run_serve(void)
{
    static const netio_handler by_line = {.on_frame = serve_line, .on_eof = serve_eof};
    static const netio_handler with_header = {.on_frame = serve_binary};
    static const netio_handler in_turns = {.on_frame = serve_ack};
    int err = run_server(binary ? &with_header : ack ? &in_turns : &by_line, IDLE_MS);
    if (err == 0) printf("%u answered, %u dropped\n", answered_count, dropped_count);
    return err;
}

static int run_queue(void)
{
    static const netio_handler handler = {
        .on_open = hand_open, .on_frame = hand_frame, .on_close = hand_close};
    if (!read_input()) return NETIO_EMSGSIZE;
    for (size_t i = 0; i < input_count; i++) make_ready(i);
    int err = netio_timer_every(NULL, loop, 2 * CALLS_TICK_MS, on_hand_tick, NULL);
    if (err == 0) err = run_server(&handler, 0); // a worker may wait for ever
    if (err < 0) return err;
    printf("%u jobs: %u done, %u parked, %u given again\n", (unsigned)input_count, jobs_done,
           jobs_parked, jobs_again);
    return jobs_done == input_count ? 0 : 1;
}

static const struct {
    const char *name;
    int (*run)(void);
} modes[] = {{"serve", run_serve},
             {"call", run_call},
             {"turns", run_turns},
             {"queue", run_queue},
             {"work", run_work}};
enum { MODES = sizeof modes / sizeof *modes };

static int usage(void)
{
    fprintf(stderr, "usage: rpc serve|call|turns|queue|work [OPTION...] ADDRESS[,ADDRESS...]\n"
                    "  --binary (serve, call), --ack (serve), --may-die (work: DIE: ends it)\n");
    for (int i = 0; i < OPTIONS; i++) {
        fprintf(stderr, "  %-10s N  %s (%g)\n", options[i].name, options[i].what,
                *options[i].value);
    }
    return 2;
}

static bool parse(int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        int k = 0;
        if (strcmp(argv[i], "--binary") == 0) binary = true;
        else if (strcmp(argv[i], "--ack") == 0) ack = true;
        else if (strcmp(argv[i], "--may-die") == 0) may_die = true;
        else if (argv[i][0] != '-') {
            for (char *at = strtok(argv[i], ","); at; at = strtok(NULL, ",")) {
                if (server_count == LINK_SERVERS_MAX) return false;
                servers[server_count++] = at;
            }
        } else {
            while (k < OPTIONS && strcmp(argv[i], options[k].name) != 0) k++;
            if (k == OPTIONS || ++i == argc) return false;
            *options[k].value = strtod(argv[i], NULL);
            if (!(*options[k].value >= 0 && *options[k].value <= 1e7)) return false;
        }
    }
    return server_count > 0 && link_max >= 1 && link_max <= 1000 && worker_count >= 1 &&
           worker_count <= 10000 && depth >= 1 && depth <= 200 && timeout_s > 0 &&
           timeout_s <= 1e6 && wait_s <= 1e6 && probe_s > 0 && probe_s <= 1e6 && ping_s > 0 &&
           ping_s <= 1e6;
}

static void on_signal(void *user)
{
    (void)user;
    if (pool) netio_loop_stop(loop);
    else netio_loop_finish(loop, 2000); // a second signal stops at once
}

int main(int argc, char **argv)
{
    int mode = 0;
    while (argc > 1 && mode < MODES && strcmp(argv[1], modes[mode].name) != 0) mode++;
    if (argc < 2 || mode == MODES || !parse(argc, argv)) return usage();
    if (binary && modes[mode].run != run_serve && modes[mode].run != run_call) return usage();
    int err = netio_loop_create(&loop, NULL);
    if (err == 0 && modes[mode].run != run_turns) {
        err = netio_signal_start(NULL, loop, SIGINT, on_signal, NULL);
        if (err == 0) err = netio_signal_start(NULL, loop, SIGTERM, on_signal, NULL);
    }
    if (err == 0) err = modes[mode].run();
    if (err < 0) fprintf(stderr, "rpc: %s: %s\n", servers[0], netio_strerror(err));
    netio_loop_destroy(loop);
    while (laters) later_end(laters);
    free_input();
    free(workers);
    free(ended);
    return err != 0;
}
