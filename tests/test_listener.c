// BACKENDS: all memory
//
// Listeners: limits and the polite refusal, whom on_accept lets in, pause, addresses, filters and
// workers, and what happens when descriptors run out.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "engine.h"

#ifndef _WIN32
#include <sys/resource.h>
#include <sys/socket.h>
#endif

enum { CROWD = 32 };

// A listener whose connections come from a pool, and clients.
typedef struct server {
    netio_loop *loop;
    netio_loop_opts loop_opts;
    netio_listener_opts opts;
    netio_listener listener;
    char addr[NETIO_ADDR_TEXT];
    pool p;
    end served[CROWD], client[CROWD];
    int clients;
    int refused; // calls of on_refused
    netio_error why;
    bool denies;
} server;

static void on_refused(void *user, const netio_addr *peer, const netio_error *why)
{
    server *s = (server *)((pool *)user)->like.arg;
    CHECK(peer != NULL && netio_addr_family(peer) != 0);
    s->refused++;
    s->why = *why;
}

static bool on_accept(void *user, const netio_addr *peer)
{
    server *s = (server *)((pool *)user)->like.arg;
    CHECK(netio_addr_family(peer) == NETIO_IPV4);
    return !s->denies;
}

static void server_init(server *s)
{
    memset(s, 0, sizeof *s);
    s->p.kind = KIND_POOL;
    s->p.ends = s->served;
    s->p.cap = CROWD;
    s->p.like.arg = s;
    s->opts.on_refused = on_refused;
    s->opts.conn.user = &s->p;
}

static void server_open(server *s, const netio_handler *h)
{
    netio_addr addr;
    CHECK_OK(test_loop_create(&s->loop, &s->loop_opts));
    CHECK_OK(CALL(netio_listener_open(&s->listener, s->loop, test_loop_addr(), h, &s->opts)));
    CHECK_OK(netio_listener_addr(s->listener, &addr));
    CHECK(netio_addr_format(&addr, s->addr, sizeof s->addr) > 0);
}

static end *server_dial(server *s)
{
    netio_dial_opts opts;
    CHECK(s->clients < CROWD);
    end *e = &s->client[s->clients++];
    memset(&opts, 0, sizeof opts);
    opts.conn.user = e;
    CHECK_OK(CALL(netio_conn_dial(&e->c, s->loop, s->addr, &end_plain, &opts)));
    return e;
}

// One more that is accepted.
static end *server_join(server *s)
{
    size_t used = s->p.used;
    end *e = server_dial(s);
    RUN_UNTIL(s->loop, e->opened && s->p.used == used + 1 && s->served[used].opened);
    return e;
}

static void server_close(server *s)
{
    test_loop_destroy(&s->loop);
    for (int i = 0; i < s->clients; i++) {
        CHECK_EQ(1, s->client[i].closed);
        end_check(&s->client[i]);
    }
    for (size_t i = 0; i < s->p.used; i++) {
        CHECK_EQ(1, s->served[i].closed);
        end_check(&s->served[i]);
    }
}

//================================================================================================
// Limits
//================================================================================================

static char heard[64];

static void hear(end *e, int what, const void *data, size_t len)
{
    size_t at = strlen(heard);
    (void)e;
    if (what == DATA && at + len < sizeof heard) {
        memcpy(heard + at, data, len);
        heard[at + len] = 0;
    }
}

TEST(listener, refuses_politely_above_its_limit)
{
    static server s;
    netio_stats st;
    server_init(&s);
    s.opts.conn_max = 3;
    char refusal[] = "Server full\r\n";
    s.opts.refusal = refusal;
    server_open(&s, &end_plain);
    memset(refusal, 'x', sizeof refusal - 1); // it was copied
    for (int i = 0; i < 3; i++) server_join(&s);
    for (int i = 0; i < 2; i++) {
        heard[0] = 0;
        end *e = server_dial(&s);
        e->on = hear;
        RUN_UNTIL(s.loop, e->closed);
        CHECK_STR("odc", e->log);
        CHECK_ERR(0, e->err); // a clean end after the line
        CHECK_STR("Server full\r\n", heard);
        CHECK_EQ(i + 1, s.refused);
        CHECK_ERR(NETIO_EBUSY, s.why.err);
        CHECK_EQ(3, s.p.used);
    }
    CHECK_OK(netio_listener_stats(s.listener, &st));
    CHECK_EQ(3, st.accepted);
    CHECK_EQ(2, st.refused);
    CHECK_EQ(3, st.active);
    netio_loop_stats(s.loop, &st);
    CHECK_EQ(3, st.accepted);
    CHECK_EQ(2, st.refused);
    CHECK_OK(CALL(netio_conn_close(s.client[1].c))); // one leaves
    RUN_UNTIL(s.loop, s.client[1].closed && s.served[1].closed);
    server_join(&s);
    CHECK_OK(CALL(netio_conn_abort(s.served[3].c)));
    CHECK_ERR(NETIO_ESTALE, CALL(netio_conn_close(s.served[3].c))); // counts once
    RUN_UNTIL(s.loop, s.served[3].closed);
    server_join(&s);
    end *e = server_dial(&s);
    RUN_UNTIL(s.loop, e->closed);
    CHECK_EQ(3, s.refused);
    server_close(&s);
}

TEST(listener, refuses_without_a_word)
{
    static server s;
    server_init(&s);
    s.opts.conn_max = 1;
    s.opts.on_refused = NULL;
    server_open(&s, &end_plain);
    server_join(&s);
    end *e = server_dial(&s);
    RUN_UNTIL(s.loop, e->closed);
    CHECK_EQ(0, e->got);
    CHECK_EQ(1, s.p.used);
    server_close(&s);
}

// A refused client that does not read or leave holds up nothing.
TEST(listener, refusal_never_blocks)
{
    static server s;
    server_init(&s);
    s.opts.conn_max = 1;
    s.opts.refusal = "full";
    server_open(&s, &end_all);
    server_join(&s);
    for (int i = 0; i < 5; i++) {
        end *e = server_dial(&s);
        CHECK_OK(CALL(netio_conn_pause(e->c)));
        RUN_UNTIL(s.loop, s.refused == i + 1);
    }
    CHECK_OK(CALL(netio_conn_write(s.served[0].c, "served", 6)));
    RUN_UNTIL(s.loop, s.client[0].got == 6);
    server_close(&s);
}

TEST(listener, limits_each_host)
{
    static server s;
    netio_stats st;
    server_init(&s);
    s.opts.conn_max_per_host = 2;
    s.opts.refusal = "too many of you";
    server_open(&s, &end_plain);
    for (int i = 0; i < 2; i++) server_join(&s);
    end *e = server_dial(&s);
    RUN_UNTIL(s.loop, e->closed);
    CHECK_EQ(15, e->got);
    CHECK_EQ(1, s.refused);
    CHECK_ERR(NETIO_EBUSY, s.why.err);
    if (!test_in_memory()) { // another host
        netio_dial_opts opts;
        e = &s.client[s.clients++];
        memset(&opts, 0, sizeof opts);
        opts.conn.user = e;
        opts.socket.local = "127.0.0.2:0";
        CHECK_OK(CALL(netio_conn_dial(&e->c, s.loop, s.addr, &end_plain, &opts)));
        RUN_UNTIL(s.loop, e->closed || (e->opened && s.p.used == 3));
        if (e->err != NETIO_EADDRNOTAVAIL) CHECK_EQ(3, s.p.used);
    }
    CHECK_OK(CALL(netio_conn_close(s.client[0].c)));
    RUN_UNTIL(s.loop, s.client[0].closed && s.served[0].closed);
    server_join(&s);
    for (int i = 0; i < 5; i++) { // come and go: nothing is left of it
        CHECK_OK(CALL(netio_conn_abort(s.client[s.clients - 1].c)));
        RUN_UNTIL(s.loop, s.client[s.clients - 1].closed && s.served[s.p.used - 1].closed);
        server_join(&s);
    }
    CHECK_OK(netio_listener_stats(s.listener, &st));
    CHECK_BETWEEN(2, 3, st.active);
    server_close(&s);
}

TEST(listener, asks_on_accept)
{
    static server s;
    server_init(&s);
    s.opts.on_accept = on_accept;
    s.opts.refusal = "go away";
    server_open(&s, &end_plain);
    server_join(&s);
    s.denies = true;
    end *e = server_dial(&s);
    RUN_UNTIL(s.loop, e->closed);
    CHECK_EQ(1, s.p.used);
    CHECK_EQ(1, s.refused);
    CHECK(s.why.err < 0);
    CHECK_EQ(7, e->got);
    s.denies = false;
    server_join(&s);
    server_close(&s);
}

// Connections that wait for their peer's end count; the oldest of them makes room.
TEST(listener, resets_the_oldest_that_closes_at_the_limit)
{
    static server s;
    server_init(&s);
    s.opts.conn_max = 3;
    s.opts.conn.close_timeout_ms = 15000;
    server_open(&s, &end_all);
    for (int i = 0; i < 3; i++) server_join(&s);
    // The clients of 1 and 2 do not read, so they do not see the end and do not close.
    for (int i = 1; i < 3; i++) {
        CHECK_OK(CALL(netio_conn_pause(s.client[i].c)));
        CHECK_OK(CALL(netio_conn_close(s.served[i].c)));
        test_run_for(s.loop, 5);
        CHECK_EQ(0, s.served[i].closed);
    }
    server_join(&s);
    RUN_UNTIL(s.loop, s.served[1].closed); // the oldest
    CHECK_ERR(NETIO_ETIMEDOUT, s.served[1].err);
    CHECK_EQ(0, s.served[2].closed);
    CHECK_EQ(0, s.served[0].closed);
    server_join(&s);
    RUN_UNTIL(s.loop, s.served[2].closed);
    CHECK_EQ(0, s.refused);
    end *e = server_dial(&s); // now all are open
    RUN_UNTIL(s.loop, e->closed);
    CHECK_EQ(1, s.refused);
    server_close(&s);
}

//================================================================================================
// Life of a listener
//================================================================================================

TEST(listener, close_leaves_its_connections)
{
    static server s;
    char addr[NETIO_ADDR_TEXT];
    server_init(&s);
    server_open(&s, &end_plain);
    server_join(&s);
    memcpy(addr, s.addr, sizeof addr);
    netio_listener_close(s.listener);
    netio_listener_close(s.listener);
    CHECK_OK(CALL(netio_conn_write(s.client[0].c, "still", 5)));
    RUN_UNTIL(s.loop, s.served[0].got == 5);
    end *e = server_dial(&s);
    RUN_UNTIL(s.loop, e->closed);
    CHECK_ERR(NETIO_ECONNREFUSED, e->err);
    // The port is free again at once.
    CHECK_OK(CALL(netio_listener_open(&s.listener, s.loop, addr, &end_plain, &s.opts)));
    server_join(&s);
    server_close(&s);
}

TEST(listener, paused_leaves_clients_in_the_backlog)
{
    static server s;
    server_init(&s);
    server_open(&s, &end_plain);
    CHECK_OK(CALL(netio_listener_pause(s.listener)));
    for (int i = 0; i < 3; i++) {
        end *e = server_dial(&s);
        RUN_UNTIL(s.loop, e->opened); // the kernel connects them
        CHECK_OK(CALL(netio_conn_write(e->c, "waiting", 7)));
    }
    test_run_for(s.loop, 20);
    CHECK_EQ(0, s.p.used);
    CHECK_OK(CALL(netio_listener_resume(s.listener)));
    RUN_UNTIL(s.loop, s.p.used == 3);
    for (int i = 0; i < 3; i++) RUN_UNTIL(s.loop, s.served[i].got == 7);
    server_close(&s);
}

TEST(listener, taken_address_is_refused)
{
    static server s;
    netio_listener l;
    server_init(&s);
    server_open(&s, &end_plain);
    CHECK_ERR(NETIO_EADDRINUSE, CALL(netio_listener_open(&l, s.loop, s.addr, &end_plain, &s.opts)));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_listener_open(&l, s.loop, "nonsense", &end_plain, NULL)));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_listener_open(&l, s.loop, NULL, &end_plain, NULL)));
    if (!test_in_memory()) // RFC 5737: nobody's address
        CHECK_ERR(NETIO_EADDRNOTAVAIL,
                  CALL(netio_listener_open(&l, s.loop, "198.51.100.7:0", &end_plain, NULL)));
    server_join(&s);
    server_close(&s);
}

TEST(listener, any_interface_takes_both_families)
{
    static server s;
    netio_addr a;
    end *e;
    char text[32];
    static const char *const hosts[] = {"127.0.0.1", "[::1]"};
    int reached = 0;
    if (test_in_memory()) SKIP("a host has one address in memory");
    server_init(&s);
    CHECK_OK(test_loop_create(&s.loop, NULL));
    CHECK_OK(CALL(netio_listener_open(&s.listener, s.loop, ":0", &end_plain, &s.opts)));
    CHECK_OK(netio_listener_addr(s.listener, &a));
    for (int i = 0; i < 2; i++) {
        netio_dial_opts opts;
        memset(&opts, 0, sizeof opts);
        e = &s.client[s.clients++];
        opts.conn.user = e;
        snprintf(text, sizeof text, "%s:%u", hosts[i], netio_addr_port(&a));
        CHECK_OK(CALL(netio_conn_dial(&e->c, s.loop, text, &end_plain, &opts)));
        RUN_UNTIL(s.loop, e->closed || (e->opened && s.p.used == (size_t)reached + 1));
        if (e->closed) continue; // no IPv6 here
        CHECK_OK(netio_conn_peer(s.served[reached++].c, &a));
        CHECK(!(netio_addr_class(&a) & NETIO_ADDR_MAPPED));
        CHECK_EQ(i ? NETIO_IPV6 : NETIO_IPV4, netio_addr_family(&a));
        CHECK_OK(netio_listener_addr(s.listener, &a));
    }
    CHECK(reached >= 1);
    CHECK_EQ(1, s.client[0].opened);
    server_close(&s);
}

TEST(listener, adopts_a_socket_that_listens)
{
    static server s;
    netio_socket l, other;
    if (test_in_memory()) SKIP("there are no sockets in memory");
    server_init(&s);
    CHECK_OK(test_loop_create(&s.loop, NULL));
    test_listen(&l, s.addr, "127.0.0.1:0");
    CHECK_OK(CALL(netio_listener_adopt(&s.listener, s.loop, l, &end_plain, &s.opts)));
    CHECK_OK(netio_listener_socket(s.listener, &other));
    CHECK(other == l);
    server_join(&s);
    CHECK_OK(netio_bind(&l, "127.0.0.1:0", NULL));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_listener_adopt(NULL, s.loop, l, &end_plain, &s.opts)));
    CHECK_OK(netio_close(&l)); // still ours
    server_close(&s);
}

TEST(listener, without_a_pointer_for_its_handle)
{
    static server s;
    server_init(&s);
    CHECK_OK(test_loop_create(&s.loop, NULL));
    CHECK_OK(CALL(netio_listener_open(NULL, s.loop, test_loop_addr(), &end_plain, &s.opts)));
    CHECK(netio_loop_run_once(s.loop, 0) >= 0);
    server_close(&s);
}

// Accepting many at once takes few turns.
TEST(listener, accepts_in_batches)
{
    static server s;
    netio_stats st;
    server_init(&s);
    server_open(&s, &end_plain);
    CHECK_OK(CALL(netio_listener_pause(s.listener)));
    for (int i = 0; i < CROWD; i++) server_dial(&s);
    for (int i = 0; i < CROWD; i++) RUN_UNTIL(s.loop, s.client[i].opened); // by the kernel
    CHECK_OK(CALL(netio_listener_resume(s.listener)));
    netio_loop_stats(s.loop, &st);
    uint64_t turns = st.turns;
    RUN_UNTIL(s.loop, s.p.used == CROWD);
    netio_loop_stats(s.loop, &st);
    CHECK(st.turns - turns <= 6);
    server_close(&s);
}

//================================================================================================
// Workers
//================================================================================================

// Loops on one thread are workers as well as those on several.
TEST(listener, hands_connections_to_workers_in_turn)
{
    static server s;
    netio_loop *worker[2];
    int per_loop[3] = {0};
    if (test_in_memory()) SKIP("each loop is a host of its own in memory");
    server_init(&s);
    for (int i = 0; i < 2; i++) CHECK_OK(test_loop_create(&worker[i], NULL));
    s.opts.workers = worker;
    s.opts.worker_count = 2;
    server_open(&s, &end_plain);
    for (int i = 0; i < 8; i++) {
        end *e = server_dial(&s);
        CHECK_OK(CALL(netio_conn_write(e->c, "hello", 5)));
    }
    uint64_t until = test_ms() + 10000;
    for (int done = 0; done < 8 && test_ms() < until;) {
        CHECK(netio_loop_run_once(s.loop, 1) >= 0);
        for (int i = 0; i < 2; i++) CHECK(netio_loop_run_once(worker[i], 1) >= 0);
        done = 0;
        for (size_t i = 0; i < s.p.used; i++) done += s.served[i].got == 5;
    }
    CHECK_EQ(8, s.p.used);
    for (size_t i = 0; i < 8; i++) {
        netio_loop *l = netio_conn_loop(s.served[i].c);
        per_loop[l == worker[0] ? 0 : l == worker[1] ? 1 : 2]++;
    }
    CHECK_EQ(4, per_loop[0]);
    CHECK_EQ(4, per_loop[1]);
    netio_listener_close(s.listener);
    CHECK(netio_loop_run_once(s.loop, 0) >= 0);
    for (int i = 0; i < 2; i++) CHECK(netio_loop_run_once(worker[i], 0) >= 0);
    for (int i = 0; i < 2; i++) test_loop_destroy(&worker[i]);
    server_close(&s);
}

//================================================================================================
// Descriptors run out
//================================================================================================

#ifndef _WIN32
// Situation (a): more clients than descriptors. Nothing spins, the others are served meanwhile, and
// when descriptors come back, so do the clients.
TEST(listener, survives_without_descriptors)
{
    enum { WAITING = 24 };
    static server s;
    netio_socket fill[512], out[WAITING];
    struct rlimit was, less;
    int count = 0;
    netio_stats before, after;
    netio_addr addr;
    if (test_in_memory()) SKIP("there are no descriptors in memory");
    server_init(&s);
    server_open(&s, &end_plain);
    server_join(&s);
    CHECK_OK(netio_addr_parse(&addr, s.addr, strlen(s.addr)));
    for (int i = 0; i < WAITING; i++) {
        int err = netio_connect_start(&out[i], &addr, NULL);
        CHECK(err == 0 || err == NETIO_EINPROGRESS);
    }
    CHECK_EQ(0, getrlimit(RLIMIT_NOFILE, &was));
    less = was;
    less.rlim_cur = 400;
    CHECK_EQ(0, setrlimit(RLIMIT_NOFILE, &less));
    while (count < 512 && netio_open(&fill[count], AF_INET, SOCK_STREAM, 0) == 0) count++;

    test_run_for(s.loop, 30); // it has noticed
    CHECK_EQ(1, s.p.used);
    uint64_t cpu = test_cpu_ms(), start = test_ms();
    netio_loop_stats(s.loop, &before);
    test_run_for(s.loop, 1330); // by now it asks once a second
    netio_loop_stats(s.loop, &after);
    uint64_t spent = test_cpu_ms() - cpu, took = test_ms() - start;
    CHECK_BETWEEN(0, 60, after.turns - before.turns); // the pause doubles
    if (!test_under("sanitizer") && !test_under("valgrind") && !test_under("qemu"))
        CHECK(spent * 100 <= took * 5);                           // less than 5 %
    CHECK_OK(CALL(netio_conn_write(s.client[0].c, "served", 6))); // the others are
    RUN_UNTIL(s.loop, s.served[0].got == 6);

    // One connection ends: its descriptor is used at once, not after the pause.
    start = test_ms();
    CHECK_OK(CALL(netio_conn_abort(s.served[0].c)));
    RUN_UNTIL(s.loop, s.p.used >= 2);
    CHECK(test_ms() - start < 500);
    while (count > 0) CHECK_OK(netio_close(&fill[--count]));
    RUN_UNTIL(s.loop, s.p.used == WAITING + 1); // all of them come in the end
    for (int i = 0; i < WAITING; i++) CHECK_OK(netio_close(&out[i]));
    CHECK_EQ(0, setrlimit(RLIMIT_NOFILE, &was));
    server_close(&s);
}
#else
TEST(listener, survives_without_descriptors) { SKIP("Windows has no limit to reach"); }
#endif

// With all descriptors taken, connections that only wait for their peer's end give theirs.
#ifndef _WIN32
TEST(listener, takes_descriptors_of_those_that_close)
{
    static server s;
    netio_socket fill[512], out;
    struct rlimit was, less;
    netio_addr addr;
    int count = 0;
    if (test_in_memory()) SKIP("there are no descriptors in memory");
    server_init(&s);
    s.opts.conn.close_timeout_ms = 15000;
    server_open(&s, &end_all);
    server_join(&s);
    CHECK_OK(CALL(netio_conn_pause(s.client[0].c)));
    CHECK_OK(CALL(netio_conn_close(s.served[0].c)));
    test_run_for(s.loop, 5);
    CHECK_EQ(0, s.served[0].closed);
    CHECK_OK(netio_addr_parse(&addr, s.addr, strlen(s.addr)));
    CHECK_EQ(0, getrlimit(RLIMIT_NOFILE, &was));
    less = was;
    less.rlim_cur = 400;
    CHECK_EQ(0, setrlimit(RLIMIT_NOFILE, &less));
    CHECK(netio_connect_start(&out, &addr, NULL) != NETIO_EMFILE);
    while (count < 512 && netio_open(&fill[count], AF_INET, SOCK_STREAM, 0) == 0) count++;
    RUN_UNTIL(s.loop, s.p.used == 2);
    RUN_UNTIL(s.loop, s.served[0].closed);
    CHECK_ERR(NETIO_ETIMEDOUT, s.served[0].err);
    while (count > 0) CHECK_OK(netio_close(&fill[--count]));
    CHECK_OK(netio_close(&out));
    CHECK_EQ(0, setrlimit(RLIMIT_NOFILE, &was));
    server_close(&s);
}
#else
TEST(listener, takes_descriptors_of_those_that_close) { SKIP("Windows has no limit to reach"); }
#endif

//================================================================================================

// clang-format off
TEST_MAIN("listener",
    T(listener, refuses_politely_above_its_limit),
    T(listener, refuses_without_a_word),
    T(listener, refusal_never_blocks),
    T(listener, limits_each_host),
    T(listener, asks_on_accept),
    T(listener, resets_the_oldest_that_closes_at_the_limit),
    T(listener, close_leaves_its_connections),
    T(listener, paused_leaves_clients_in_the_backlog),
    T(listener, taken_address_is_refused),
    T(listener, any_interface_takes_both_families),
    T(listener, adopts_a_socket_that_listens),
    T(listener, without_a_pointer_for_its_handle),
    T(listener, accepts_in_batches),
    T(listener, hands_connections_to_workers_in_turn),
    T(listener, survives_without_descriptors),
    T(listener, takes_descriptors_of_those_that_close))
