// Loops and connections for tests that run unchanged on both engines: over the OS's sockets with
// any poller (--backend NAME), and over the network in memory (--backend memory, memory-rough).
//
// An `end` is one end of a connection: it notes the order of its callbacks, checks the bytes that
// come against a stream known from a seed, and can write such a stream. A `duo` is a loop with a
// listener and one connection to it. All that can be said of every connection is checked when the
// duo closes: on_open first and once, on_close once and last, nothing called back from inside a
// call that the test made.
#ifndef NETIO_TEST_ENGINE_H
#define NETIO_TEST_ENGINE_H

#include "test.h"

// As netio_loop_create, on the engine and backend of the command line; `opts` may be NULL. In
// memory the loops of a test share one network; the first has the host "127.0.0.1", those that
// follow "10.0.0.2", "10.0.0.3"... unless `opts` says otherwise. Destroying the last destroys the
// network.
int test_loop_create(netio_loop **out, const netio_loop_opts *opts);
void test_loop_destroy(netio_loop **loop);
netio_network *test_network(void);  // of this test; NULL over sockets
const char *test_loop_addr(void);   // to listen on: "127.0.0.1:0"
void test_link(const netio_link *); // between all hosts in memory; over sockets nothing

// Turns of the loop until a condition holds; the test fails after 20 s on the loop's clock, or 40
// of real time.
typedef struct test_span {
    netio_loop *loop;
    uint64_t loop_ms, real_ms;
} test_span;

test_span test_span_begin(netio_loop *loop);
void test_span_turn(const test_span *span, const char *file, int line, const char *what);

#define RUN_UNTIL(loop, cond)                                                                      \
    do {                                                                                           \
        test_span span_ = test_span_begin(loop);                                                   \
        while (!(cond)) test_span_turn(&span_, __FILE__, __LINE__, #cond);                         \
    } while (0)

// To show that something does not happen, or to let things settle.
void test_run_for(netio_loop *loop, int ms);

// A call of netio's by the test, inside which no callback may run: CALL(netio_conn_write(...)).
extern int test_calling;
int test_called(int result);
#define CALL(call) (test_calling++, test_called(call))

// Byte number `pos` of the stream `seed`, and on.
void stream_fill(void *buf, size_t len, uint32_t seed, uint64_t pos);
bool stream_is(const void *buf, size_t len, uint32_t seed, uint64_t pos);

//================================================================================================
// Ends
//================================================================================================

enum { KIND_END, KIND_POOL };

// What happened, in `log` and to `on`.
// clang-format off
enum { OPENED = 'o', SECURED = 's', DATA = 'd', DRAINED = 'r', ENDED = 'e', TIMED_OUT = 't',
       STOPPED = 'p', CLOSED = 'c' };
// clang-format on

typedef struct end {
    int kind; // KIND_END, so that zero is right
    netio_conn c;
    char log[48]; // callbacks in order; several DATA in a row as one
    int opened, secured, drained, ended, timed_out, stopped, closed;
    int which;          // of the last timeout
    int err;            // of on_close
    netio_error error;  // netio_conn_error in on_close; err 0: none
    netio_stats stats;  // in on_close
    uint64_t got;       // bytes
    uint32_t seed;      // of the stream that comes; 0: not checked
    bool wrong;         // it was another
    const char *broken; // a rule of the callbacks
    bool echo;          // send back what comes
    bool echo_failed;
    // What end_pump writes.
    uint32_t out_seed;
    uint64_t out_len, out;
    size_t piece; // bytes of a write; 0: 1 to 64 KiB, at random
    char then;    // after it: 's' shutdown, 'c' close, 'a' abort, 0 nothing
    uint32_t random;
    // Called for each callback after it was noted; `data` of DATA only.
    void (*on)(struct end *e, int what, const void *data, size_t len);
    void *arg; // the test's
} end;

// A pool as user of a listener gives each accepted connection an end of its own.
typedef struct pool {
    int kind; // KIND_POOL
    end *ends;
    size_t cap, used;
    end like; // what each begins as
} pool;

// Every callback, noted; what an absent one does is not done. `end_plain` has no on_eof,
// on_timeout, on_stop, so that they do what is promised for absent ones.
extern const netio_handler end_all, end_plain;

end *end_of(netio_conn c);    // claims one of the pool
void end_pump(end *e);        // writes until all is written or the queue is full; on_drain goes on
void end_check(const end *e); // what holds for each end, whether it is over or not
bool end_lost(const end *e);  // closed by its peer's reset; Wine shows that as an end of stream
void check_reset(const end *e); // that it was so

//================================================================================================
// A loop with one connection
//================================================================================================

typedef struct duo {
    // Set before duo_start; conn.user of both is set by it.
    netio_loop_opts loop_opts;
    netio_dial_opts dial;
    netio_listener_opts listen;
    int small; // bytes of the kernel's buffers, or of the window in memory; 0: as they are
    // Set by it.
    netio_loop *loop;
    netio_listener listener;
    char addr[NETIO_ADDR_TEXT];
    end a, b; // who dialed, who accepted
    netio_setting settings[2];
} duo;

void duo_init(duo *d);
void duo_start(duo *d, const netio_handler *a, const netio_handler *b); // dials
void duo_open(duo *d, const netio_handler *a, const netio_handler *b);  // until both have opened
void duo_close(duo *d);                                                 // checks everything

// Another connection to the same listener, whose conn.user must be a pool.
void duo_dial(duo *d, end *e, const netio_handler *h);

// Write from `e` until at least `pending` bytes wait in its queue, in pieces of `piece`; the other
// end should be paused. Returns how many bytes were taken.
uint64_t end_fill(duo *d, end *e, size_t pending, size_t piece);

// A port of this machine on which nobody listens, as text.
void closed_port(netio_loop *loop, char out[NETIO_ADDR_TEXT]);

// A file that holds `len` bytes of the stream `seed`; closed by the test with fclose.
FILE *stream_file(const char *name, uint64_t len, uint32_t seed, netio_file *out);

#endif // NETIO_TEST_ENGINE_H
