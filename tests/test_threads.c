// What may happen at once: first calls, a reader and a writer on one socket, threads of their own.
//
// Short enough for ThreadSanitizer, which is what makes these tests worth most.
#include "test.h"

enum { THREADS = 8 };

static bool slow_machine(void)
{
    return test_under("wine") || test_under("qemu") || test_under("valgrind");
}

static bool very_slow_machine(void) { return slow_machine() || test_under("sanitizer"); }

//================================================================================================
// The first call of the program. It must be the first test: on Windows it starts Winsock.
//================================================================================================

typedef struct first {
    int which;
    int err;
} first;

static void call_first(void *arg)
{
    first *f = (first *)arg;
    netio_socket s = NETIO_INVALID_SOCKET, pair[2];
    netio_addr list[4];
    switch (f->which % 4) {
    case 0: f->err = netio_listen(&s, "127.0.0.1:0", NULL); break;
    case 1: f->err = netio_bind(&s, "127.0.0.1:0", NULL); break;
    case 2:
        f->err = netio_pair(pair, NETIO_STREAM);
        if (f->err == 0) {
            s = pair[0];
            netio_close(&pair[1]);
        }
        break;
    default:
        f->err = netio_resolve("localhost:80", list, 4, NULL, -1) > 0 ? 0 : -1;
        if (f->err == 0) f->err = netio_option_supported(NETIO_OPT_NODELAY) ? 0 : -1;
    }
    if (s != NETIO_INVALID_SOCKET) netio_close(&s);
}

TEST(threads, the_first_calls_may_race)
{
    test_thread thread[THREADS];
    first f[THREADS];
    for (int i = 0; i < THREADS; i++) {
        f[i].which = i;
        f[i].err = -1;
        test_thread_start(&thread[i], call_first, &f[i]);
    }
    for (int i = 0; i < THREADS; i++) test_thread_join(&thread[i]);
    for (int i = 0; i < THREADS; i++) CHECK_OK(f[i].err);
}

//================================================================================================
// One reader and one writer on one socket
//================================================================================================

enum { MESSAGE = 64 };

typedef struct lane {
    netio_socket s;
    int count;     // messages to send or to receive
    uint32_t seed; // of the first
    int done, err, wrong;
} lane;

static void write_lane(void *arg)
{
    lane *l = (lane *)arg;
    unsigned char buf[MESSAGE];
    for (l->done = 0; l->done < l->count && l->err == 0; l->done++) {
        memset(buf, (int)((l->seed + (uint32_t)l->done) & 255), sizeof buf);
        memcpy(buf, &l->done, sizeof l->done);
        l->err = netio_send_all(l->s, buf, sizeof buf, NULL, 20000);
    }
}

static void read_lane(void *arg)
{
    lane *l = (lane *)arg;
    unsigned char buf[MESSAGE], want[MESSAGE];
    for (l->done = 0; l->done < l->count && l->err == 0; l->done++) {
        memset(want, (int)((l->seed + (uint32_t)l->done) & 255), sizeof want);
        memcpy(want, &l->done, sizeof l->done);
        l->err = netio_recv_exact(l->s, buf, sizeof buf, NULL, 20000);
        if (l->err == 0 && memcmp(buf, want, sizeof buf) != 0) l->wrong++;
    }
}

// Four threads over the two ends of a connection: a reader and a writer on each.
static void check_full_duplex(netio_socket a, netio_socket b, int count)
{
    test_thread thread[4];
    lane l[4];
    memset(l, 0, sizeof l);
    for (int i = 0; i < 4; i++) {
        l[i].s = i < 2 ? a : b;
        l[i].count = count;
        l[i].seed = i == 0 || i == 3 ? 1 : 101; // 0 writes to 3, 2 to 1
        test_thread_start(&thread[i], i % 2 == 0 ? write_lane : read_lane, &l[i]);
    }
    for (int i = 0; i < 4; i++) test_thread_join(&thread[i]);
    for (int i = 0; i < 4; i++) {
        CHECK_OK(l[i].err);
        CHECK_EQ(0, l[i].wrong);
        CHECK_EQ(count, l[i].done);
    }
}

TEST(threads, one_reads_while_one_writes_a_socket)
{
    netio_socket client, server;
    test_tcp_pair(&client, &server);
    CHECK_OK(netio_set_option(client, NETIO_OPT_NODELAY, 1));
    check_full_duplex(client, server, slow_machine() ? 1000 : very_slow_machine() ? 20000 : 100000);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(threads, one_reads_while_one_writes_a_pair)
{
    netio_socket pair[2];
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    check_full_duplex(pair[0], pair[1], slow_machine() ? 1000 : 20000);
    CHECK_OK(netio_close(&pair[0]));
    CHECK_OK(netio_close(&pair[1]));
}

// Large pieces both ways at once; the sums at both ends must agree.
typedef struct bulk {
    netio_socket s;
    uint64_t total;
    uint64_t sum; // FNV-1a of all bytes
    int err;
} bulk;

enum { CHUNK = 1 << 16 };

static uint64_t fnv(uint64_t sum, const unsigned char *data, size_t len)
{
    for (size_t i = 0; i < len; i++) sum = (sum ^ data[i]) * 1099511628211u;
    return sum;
}

static void write_bulk(void *arg)
{
    bulk *b = (bulk *)arg;
    unsigned char *buf = (unsigned char *)malloc(CHUNK);
    uint32_t state = 12345;
    if (!buf) b->err = NETIO_ENOMEM;
    for (uint64_t sent = 0; sent < b->total && b->err == 0; sent += CHUNK) {
        for (size_t i = 0; i < CHUNK; i += 4) {
            uint32_t x = test_random(&state);
            memcpy(buf + i, &x, 4);
        }
        b->sum = fnv(b->sum, buf, CHUNK);
        b->err = netio_send_all(b->s, buf, CHUNK, NULL, 20000);
    }
    if (b->err == 0) b->err = netio_shutdown(b->s, NETIO_SHUT_WRITE);
    free(buf);
}

static void read_bulk(void *arg)
{
    bulk *b = (bulk *)arg;
    unsigned char *buf = (unsigned char *)malloc(CHUNK);
    uint64_t got = 0;
    ptrdiff_t n = NETIO_ENOMEM;
    while (buf && (n = netio_recv(b->s, buf, CHUNK, 20000)) > 0) {
        b->sum = fnv(b->sum, buf, (size_t)n);
        got += (uint64_t)n;
    }
    b->err = n == NETIO_EOF && got == b->total ? 0 : (int)n;
    free(buf);
}

TEST(threads, both_directions_at_once_carry_all_bytes)
{
    netio_socket client, server;
    test_thread thread[4];
    bulk b[4];
    memset(b, 0, sizeof b);
    test_tcp_pair(&client, &server);
    for (int i = 0; i < 4; i++) {
        b[i].s = i < 2 ? client : server;
        b[i].total = slow_machine() ? 1 << 20 : very_slow_machine() ? 4 << 20 : 100 << 20;
        b[i].sum = 14695981039346656037u;
        test_thread_start(&thread[i], i % 2 == 0 ? write_bulk : read_bulk, &b[i]);
    }
    for (int i = 0; i < 4; i++) test_thread_join(&thread[i]);
    for (int i = 0; i < 4; i++) CHECK_OK(b[i].err);
    CHECK_EQ(b[0].sum, b[3].sum);
    CHECK_EQ(b[2].sum, b[1].sum);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(threads, a_writer_is_not_held_up_by_a_reader_that_waits)
{
    // The reader sits in its deadline on the same socket while the writer works.
    netio_socket client, server;
    test_thread thread;
    lane l;
    char buf[4] = {0};
    uint64_t from;
    memset(&l, 0, sizeof l);
    test_tcp_pair(&client, &server);
    l.s = client;
    l.count = 1;
    test_thread_start(&thread, read_lane, &l); // waits for a message of 64 bytes
    from = test_ms();
    for (int i = 0; i < 100; i++) {
        CHECK_ERR(1, netio_send(client, "w", 1, 5000));
        CHECK_ERR(1, netio_recv(server, buf, 1, 5000));
    }
    CHECK_BETWEEN(0, 5000, test_ms() - from);
    {
        unsigned char message[MESSAGE] = {0}; // number 0, seed 0
        CHECK_OK(netio_send_all(server, message, sizeof message, NULL, 5000));
    }
    test_thread_join(&thread);
    CHECK_OK(l.err);
    CHECK_EQ(0, l.wrong);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

//================================================================================================
// Sockets of each thread
//================================================================================================

typedef struct worker {
    int rounds, err;
    uint32_t seed;
} worker;

// Everything a thread can do with sockets of its own, over and over.
static int work_once(worker *w)
{
    netio_socket listener = NETIO_INVALID_SOCKET, client = NETIO_INVALID_SOCKET;
    netio_socket server = NETIO_INVALID_SOCKET, a = NETIO_INVALID_SOCKET, b = a;
    netio_addr addr, to, from;
    char text[NETIO_ADDR_TEXT];
    unsigned char out[512], in[512];
    size_t len = test_random(&w->seed) % sizeof out + 1;
    int value, err;
    test_fill(out, sizeof out, w->seed);
    if ((err = netio_listen(&listener, "127.0.0.1:0", NULL)) < 0) goto end;
    if ((err = netio_local_addr(listener, &addr)) < 0) goto end;
    if ((err = netio_addr_format(&addr, text, sizeof text)) < 0) goto end;
    if ((err = netio_connect(&client, text, NULL, 10000)) < 0) goto end;
    if ((err = netio_accept(&server, listener, &from, 10000)) < 0) goto end;
    if ((err = netio_set_option(client, NETIO_OPT_NODELAY, 1)) < 0) goto end;
    if ((err = netio_get_option(client, NETIO_OPT_NODELAY, &value)) < 0) goto end;
    for (int i = 0; i < 20; i++) {
        if ((err = netio_send_all(client, out, len, NULL, 10000)) < 0) goto end;
        if ((err = netio_recv_exact(server, in, len, NULL, 10000)) < 0) goto end;
        if ((err = netio_send_all(server, in, len, NULL, 10000)) < 0) goto end;
        memset(in, 0, sizeof in);
        if ((err = netio_recv_exact(client, in, len, NULL, 10000)) < 0) goto end;
        if (memcmp(in, out, len) != 0) err = NETIO_EBADMSG;
    }
    if (err < 0) goto end;
    if ((err = netio_bind(&a, "127.0.0.1:0", NULL)) < 0) goto end;
    if ((err = netio_bind(&b, "127.0.0.1:0", NULL)) < 0) goto end;
    if ((err = netio_local_addr(b, &to)) < 0) goto end;
    if ((err = (int)netio_sendto(a, out, len, &to, 10000)) < 0) goto end;
    if ((err = (int)netio_recvfrom(b, in, sizeof in, &from, 10000)) < 0) goto end;
    if ((size_t)err != len || memcmp(in, out, len) != 0) err = NETIO_EBADMSG;
    else err = 0;
end:
    netio_close(&client);
    netio_close(&server);
    netio_close(&listener);
    netio_close(&a);
    netio_close(&b);
    return err;
}

static void work(void *arg)
{
    worker *w = (worker *)arg;
    for (int i = 0; i < w->rounds && w->err == 0; i++) w->err = work_once(w);
}

TEST(threads, eight_own_their_sockets)
{
    test_thread thread[THREADS];
    worker w[THREADS];
    for (int i = 0; i < THREADS; i++) {
        w[i].rounds = slow_machine() ? 2 : 25;
        w[i].err = 0;
        w[i].seed = (uint32_t)i + 1;
        test_thread_start(&thread[i], work, &w[i]);
    }
    for (int i = 0; i < THREADS; i++) test_thread_join(&thread[i]);
    for (int i = 0; i < THREADS; i++) CHECK_OK(w[i].err);
}

// Each thread has its own OS error, as it has its own calls.
typedef struct failer {
    bool connect;
    int rounds, wrong;
} failer;

static void fail(void *arg)
{
    failer *f = (failer *)arg;
    for (int i = 0; i < f->rounds; i++) {
        netio_socket s = NETIO_INVALID_SOCKET, number = NETIO_INVALID_SOCKET;
        int err;
        if (f->connect) {
            err = netio_listen(&s, "198.51.100.7:0", NULL); // RFC 5737: nobody's address
            if (err != NETIO_EADDRNOTAVAIL || netio_error_from_os(netio_os_error()) != err)
                f->wrong++;
        } else {
            err = netio_open(&number, 250, 1, 0);
            if (err != NETIO_EAFNOSUPPORT || netio_error_from_os(netio_os_error()) != err)
                f->wrong++;
        }
        if (s != NETIO_INVALID_SOCKET) netio_close(&s);
    }
}

TEST(threads, the_os_error_belongs_to_its_thread)
{
    test_thread thread[4];
    failer f[4];
    for (int i = 0; i < 4; i++) {
        f[i].connect = i % 2 == 0;
        f[i].rounds = slow_machine() ? 20 : 500;
        f[i].wrong = 0;
        test_thread_start(&thread[i], fail, &f[i]);
    }
    for (int i = 0; i < 4; i++) test_thread_join(&thread[i]);
    for (int i = 0; i < 4; i++) CHECK_EQ(0, f[i].wrong);
}

//================================================================================================
// Many clients of one listener
//================================================================================================

typedef struct dialer {
    char text[NETIO_ADDR_TEXT];
    int rounds, err;
} dialer;

static void dial(void *arg)
{
    dialer *d = (dialer *)arg;
    for (int i = 0; i < d->rounds && d->err == 0; i++) {
        netio_socket s;
        char c;
        d->err = netio_connect(&s, d->text, NULL, 10000);
        if (d->err < 0) return;
        d->err = netio_send_all(s, "c", 1, NULL, 10000);
        if (d->err == 0) d->err = netio_recv_exact(s, &c, 1, NULL, 10000);
        netio_close(&s);
    }
}

// Two threads share the accepting, which is what a lock-free accept queue is for; each client gets
// one server and none gets two.
typedef struct acceptor {
    netio_socket listener;
    int served, err;
} acceptor;

static void accept_many(void *arg)
{
    acceptor *a = (acceptor *)arg;
    for (;;) {
        netio_socket s;
        char c;
        a->err = netio_accept(&s, a->listener, NULL, 10000);
        if (a->err < 0) return;
        if (netio_recv(s, &c, 1, 10000) == 1 && c == 'c') {
            a->served++;
            netio_send_all(s, "s", 1, NULL, 10000);
        } else {
            c = 'q';
        }
        netio_close(&s);
        if (c == 'q') return;
    }
}

TEST(threads, a_listener_serves_clients_of_many_threads)
{
    test_thread thread[THREADS], server[2];
    dialer d[THREADS];
    acceptor a[2];
    netio_socket listener, s;
    char text[NETIO_ADDR_TEXT];
    int rounds = slow_machine() ? 3 : 25;
    test_listen(&listener, text, "127.0.0.1:0");
    for (int i = 0; i < 2; i++) {
        a[i].listener = listener;
        a[i].served = a[i].err = 0;
        test_thread_start(&server[i], accept_many, &a[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        memcpy(d[i].text, text, sizeof text);
        d[i].rounds = rounds;
        d[i].err = 0;
        test_thread_start(&thread[i], dial, &d[i]);
    }
    for (int i = 0; i < THREADS; i++) test_thread_join(&thread[i]);
    for (int i = 0; i < 2; i++) { // a client that says nothing ends one server
        CHECK_OK(netio_connect(&s, text, NULL, 5000));
        CHECK_OK(netio_close(&s));
    }
    for (int i = 0; i < 2; i++) test_thread_join(&server[i]);
    for (int i = 0; i < THREADS; i++) CHECK_OK(d[i].err);
    for (int i = 0; i < 2; i++) CHECK_OK(a[i].err);
    CHECK_EQ(THREADS * rounds, a[0].served + a[1].served);
    CHECK_OK(netio_close(&listener));
}

//================================================================================================

// clang-format off
TEST_MAIN("threads",
    T(threads, the_first_calls_may_race),
    T(threads, one_reads_while_one_writes_a_socket),
    T(threads, one_reads_while_one_writes_a_pair),
    T(threads, both_directions_at_once_carry_all_bytes),
    T(threads, a_writer_is_not_held_up_by_a_reader_that_waits),
    T(threads, eight_own_their_sockets),
    T(threads, the_os_error_belongs_to_its_thread),
    T(threads, a_listener_serves_clients_of_many_threads))
