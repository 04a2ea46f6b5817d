// The helpers behind engine.h.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "engine.h"

#ifdef _WIN32
#include <io.h>
#endif

//================================================================================================
// Loops
//================================================================================================

static struct {
    unsigned serial; // the test that it belongs to
    netio_network *network;
    int loops, hosts;
} g;

static const netio_link *usual_link(void)
{
    static const netio_link smooth = {0};
    static netio_link rough;
    rough.latency_ms = 3;
    rough.piece_max = 1500;
    rough.send_max = 3000;
    return test_rough() ? &rough : &smooth;
}

// What a test that failed left behind stays as it is.
static void forget_last_test(void)
{
    if (g.serial == test_serial()) return;
    memset(&g, 0, sizeof g);
    g.serial = test_serial();
    test_calling = 0;
}

static int network_create(void)
{
    forget_last_test();
    if (!test_in_memory() || g.network) return 0;
    netio_network_opts opts;
    memset(&opts, 0, sizeof opts);
    const char *seed = getenv("NETIO_TEST_SEED");
    opts.seed = seed ? strtoull(seed, NULL, 10) : 1;
    opts.link = *usual_link();
    return netio_network_create(&g.network, &opts);
}

static void network_destroy(void)
{
    if (g.loops > 0 || !g.network) return;
    CHECK_OK(netio_network_destroy(g.network));
    g.network = NULL;
    g.hosts = 0;
}

netio_network *test_network(void)
{
    CHECK_OK(network_create());
    return g.network;
}

int test_loop_create(netio_loop **out, const netio_loop_opts *opts)
{
    netio_loop_opts o;
    char host[32];
    int err = network_create();
    if (err < 0) return err;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (test_in_memory()) {
        if (!o.network) o.network = g.network;
        snprintf(host, sizeof host, g.hosts ? "10.0.0.%d" : "127.0.0.1", g.hosts + 1);
        if (!o.host) o.host = host;
    } else if (!o.backend) {
        o.backend = test_backend();
    }
    err = netio_loop_create(out, &o);
    if (err == 0) g.loops++, g.hosts++;
    else network_destroy();
    return err;
}

void test_loop_destroy(netio_loop **loop)
{
    CHECK_OK(netio_loop_destroy(*loop));
    *loop = NULL;
    g.loops--;
    network_destroy();
}

const char *test_loop_addr(void) { return "127.0.0.1:0"; }

void test_link(const netio_link *link)
{
    if (test_in_memory()) CHECK_OK(netio_network_link(test_network(), NULL, NULL, link));
}

test_span test_span_begin(netio_loop *loop)
{
    test_span s;
    s.loop = loop;
    s.loop_ms = netio_loop_now_ms(loop);
    s.real_ms = test_ms();
    return s;
}

void test_span_turn(const test_span *s, const char *file, int line, const char *what)
{
    int n = netio_loop_run_once(s->loop, 100);
    if (n < 0) test_fail(file, line, "run_once: %s", netio_errname(n));
    if (netio_loop_now_ms(s->loop) - s->loop_ms > 20000 || test_ms() - s->real_ms > 40000)
        test_fail(file, line, "waited in vain for: %s", what);
}

static void set_true(void *flag) { *(bool *)flag = true; }

void test_run_for(netio_loop *loop, int ms)
{
    bool over = false;
    CHECK_OK(netio_timer_once(NULL, loop, ms, set_true, &over));
    RUN_UNTIL(loop, over);
}

int test_calling;

int test_called(int result)
{
    test_calling--;
    return result;
}

//================================================================================================
// Streams of bytes
//================================================================================================

static uint64_t stream_word(uint32_t seed, uint64_t i)
{
    uint64_t x = i * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u;
    x ^= x >> 31;
    x *= 0xBF58476D1CE4E5B9u;
    return x ^ x >> 29;
}

void stream_fill(void *buf, size_t len, uint32_t seed, uint64_t pos)
{
    unsigned char *p = (unsigned char *)buf;
    uint64_t word = stream_word(seed, pos / 8);
    for (size_t i = 0; i < len; i++, pos++) {
        if (pos % 8 == 0) word = stream_word(seed, pos / 8);
        p[i] = (unsigned char)(word >> 8 * (pos % 8));
    }
}

bool stream_is(const void *buf, size_t len, uint32_t seed, uint64_t pos)
{
    const unsigned char *p = (const unsigned char *)buf;
    uint64_t word = stream_word(seed, pos / 8);
    for (size_t i = 0; i < len; i++, pos++) {
        if (pos % 8 == 0) word = stream_word(seed, pos / 8);
        if (p[i] != (unsigned char)(word >> 8 * (pos % 8))) return false;
    }
    return true;
}

FILE *stream_file(const char *name, uint64_t len, uint32_t seed, netio_file *out)
{
    static unsigned char buf[8192];
    FILE *f = fopen(test_path(name), "wb+");
    CHECK(f != NULL);
    for (uint64_t at = 0; at < len;) {
        size_t n = len - at < sizeof buf ? (size_t)(len - at) : sizeof buf;
        stream_fill(buf, n, seed, at);
        CHECK_EQ(n, fwrite(buf, 1, n, f));
        at += n;
    }
    CHECK_EQ(0, fflush(f));
#ifdef _WIN32
    *out = (netio_file)_get_osfhandle(_fileno(f));
#else
    *out = fileno(f);
#endif
    return f;
}

//================================================================================================
// Ends
//================================================================================================

end *end_of(netio_conn c)
{
    void *user = netio_conn_user(c);
    CHECK(user != NULL);
    if (*(int *)user == KIND_POOL) {
        pool *p = (pool *)user;
        CHECK(p->used < p->cap);
        end *e = &p->ends[p->used++];
        *e = p->like;
        netio_conn_set_user(c, e);
        CHECK(netio_conn_user(c) == e);
        e->c = c;
    }
    end *e = (end *)netio_conn_user(c);
    if (!e->opened) e->c = c;
    return e;
}

static void breaks(end *e, bool broken, const char *rule)
{
    if (broken && !e->broken) e->broken = rule;
}

static end *note(netio_conn c, int what)
{
    end *e = end_of(c);
    size_t at = strlen(e->log);
    breaks(e, test_calling > 0, "called back from inside a call");
    breaks(e, e->closed > 0, "called back after on_close");
    breaks(e, !netio_conn_same(c, e->c), "another handle than before");
    breaks(e, what == OPENED && e->opened, "on_open twice");
    breaks(e, what != OPENED && what != CLOSED && !e->opened, "called back before on_open");
    breaks(e, what == ENDED && e->ended, "on_eof twice");
    breaks(e, what == DATA && e->ended, "on_data after on_eof");
    breaks(e, what != CLOSED && !netio_conn_alive(c), "called back though it is closing");
    if (at + 1 < sizeof e->log && !(what == DATA && at > 0 && e->log[at - 1] == DATA)) {
        e->log[at] = (char)what;
        e->log[at + 1] = 0;
    }
    return e;
}

static void hand_on(end *e, int what, const void *data, size_t len)
{
    if (e->on) e->on(e, what, data, len);
}

static void on_open(netio_conn c)
{
    end *e = note(c, OPENED);
    e->opened++;
    hand_on(e, OPENED, NULL, 0);
}

static void on_secure(netio_conn c)
{
    end *e = note(c, SECURED);
    e->secured++;
    hand_on(e, SECURED, NULL, 0);
}

static void on_data(netio_conn c, const void *data, size_t len)
{
    end *e = note(c, DATA);
    breaks(e, len == 0 || !data, "on_data without bytes");
    if (e->seed && !stream_is(data, len, e->seed, e->got)) e->wrong = true;
    e->got += len;
    if (e->echo && CALL(netio_conn_write(c, data, len)) < 0) e->echo_failed = true;
    hand_on(e, DATA, data, len);
}

static void on_drain(netio_conn c)
{
    end *e = note(c, DRAINED);
    e->drained++;
    if (e->out_len) end_pump(e);
    hand_on(e, DRAINED, NULL, 0);
}

static void on_eof(netio_conn c)
{
    end *e = note(c, ENDED);
    e->ended++;
    hand_on(e, ENDED, NULL, 0);
}

static void on_timeout(netio_conn c, int which)
{
    end *e = note(c, TIMED_OUT);
    e->timed_out++;
    e->which = which;
    hand_on(e, TIMED_OUT, NULL, 0);
}

static void on_stop(netio_conn c)
{
    end *e = note(c, STOPPED);
    e->stopped++;
    hand_on(e, STOPPED, NULL, 0);
}

static void on_close(netio_conn c, int err)
{
    end *e = note(c, CLOSED);
    e->closed++;
    e->err = err;
    if (netio_conn_error(c, &e->error) < 0) memset(&e->error, 0, sizeof e->error);
    if (netio_conn_stats(c, &e->stats) < 0) breaks(e, true, "no counters in on_close");
    breaks(e, err > 0, "on_close with a positive error");
    breaks(e, err < 0 && e->error.err != err, "netio_conn_error differs from on_close");
    breaks(e, netio_conn_alive(c), "alive in on_close");
    hand_on(e, CLOSED, NULL, 0);
}

const netio_handler end_all = {.on_open = on_open,
                               .on_secure = on_secure,
                               .on_data = on_data,
                               .on_drain = on_drain,
                               .on_eof = on_eof,
                               .on_timeout = on_timeout,
                               .on_stop = on_stop,
                               .on_close = on_close};
const netio_handler end_plain = {.on_open = on_open,
                                 .on_secure = on_secure,
                                 .on_data = on_data,
                                 .on_drain = on_drain,
                                 .on_close = on_close};

void end_pump(end *e)
{
    static unsigned char buf[65536];
    while (e->out < e->out_len) {
        size_t len = e->piece ? e->piece : test_random(&e->random) % sizeof buf + 1;
        if (len > sizeof buf) len = sizeof buf;
        if (len > e->out_len - e->out) len = (size_t)(e->out_len - e->out);
        stream_fill(buf, len, e->out_seed, e->out);
        int err = CALL(netio_conn_write(e->c, buf, len));
        if (err == NETIO_ENOBUFS) return;
        if (err < 0) {
            breaks(e, err != NETIO_ESTALE && err != NETIO_ENOMEM, "a write fails");
            return;
        }
        e->out += len;
    }
    char then = e->then;
    e->then = 0;
    if (then == 's') breaks(e, CALL(netio_conn_shutdown(e->c)) < 0, "shutdown fails");
    if (then == 'c') breaks(e, CALL(netio_conn_close(e->c)) < 0, "close fails");
    if (then == 'a') breaks(e, CALL(netio_conn_abort(e->c)) < 0, "abort fails");
}

void end_check(const end *e)
{
    if (e->broken) test_fail("engine.c", 0, "%s (callbacks: %s)", e->broken, e->log);
    if (e->wrong)
        test_fail("engine.c", 0, "bytes differ, within the first %lu", (unsigned long)e->got);
    CHECK(!e->echo_failed);
}

bool end_lost(const end *e) { return e->closed || (e->ended && test_under("wine")); }

void check_reset(const end *e)
{
    if (test_under("wine") && (e->err == 0 || !e->closed)) return;
    CHECK_EQ(1, e->closed);
    CHECK(e->err == NETIO_ECONNRESET || e->err == NETIO_EPIPE);
}

//================================================================================================
// A loop with one connection
//================================================================================================

void duo_init(duo *d)
{
    memset(d, 0, sizeof *d);
    d->a.random = 11;
    d->b.random = 22;
}

static void make_small(duo *d)
{
    if (test_in_memory()) {
        netio_link link = *usual_link();
        link.window = (size_t)d->small;
        test_link(&link);
        return;
    }
    d->settings[0].option = NETIO_OPT_SNDBUF;
    d->settings[1].option = NETIO_OPT_RCVBUF;
    d->settings[0].value = d->settings[1].value = d->small;
    d->dial.socket.settings = d->listen.socket.settings = d->settings;
    d->dial.socket.setting_count = d->listen.socket.setting_count = 2;
}

void duo_start(duo *d, const netio_handler *a, const netio_handler *b)
{
    netio_addr addr;
    CHECK_OK(test_loop_create(&d->loop, &d->loop_opts));
    if (d->small) make_small(d);
    if (!d->listen.conn.user) d->listen.conn.user = &d->b;
    CHECK_OK(CALL(netio_listener_open(&d->listener, d->loop, test_loop_addr(), b, &d->listen)));
    CHECK_OK(netio_listener_addr(d->listener, &addr));
    CHECK(netio_addr_format(&addr, d->addr, sizeof d->addr) > 0);
    duo_dial(d, &d->a, a);
}

void duo_dial(duo *d, end *e, const netio_handler *h)
{
    netio_dial_opts opts = d->dial;
    opts.conn.user = e;
    CHECK_OK(CALL(netio_conn_dial(&e->c, d->loop, d->addr, h, &opts)));
    CHECK(netio_conn_alive(e->c));
    CHECK_STR("", e->log); // nothing before it returns
}

void duo_open(duo *d, const netio_handler *a, const netio_handler *b)
{
    duo_start(d, a, b);
    RUN_UNTIL(d->loop, d->a.opened && (d->b.opened || d->listen.conn.user != &d->b));
    end_check(&d->a);
    end_check(&d->b);
}

void duo_close(duo *d)
{
    test_loop_destroy(&d->loop);
    CHECK_EQ(1, d->a.closed);
    CHECK_EQ(d->b.opened, d->b.closed);
    end_check(&d->a);
    end_check(&d->b);
}

uint64_t end_fill(duo *d, end *e, size_t pending, size_t piece)
{
    static unsigned char buf[65536];
    uint64_t from = e->out;
    CHECK(piece <= sizeof buf);
    for (int turns = 0; turns < 20 || netio_conn_pending(e->c) < pending;) {
        size_t had = netio_conn_pending(e->c);
        while (netio_conn_pending(e->c) < pending) {
            stream_fill(buf, piece, e->out_seed, e->out);
            CHECK_OK(CALL(netio_conn_write(e->c, buf, piece)));
            e->out += piece;
        }
        netio_loop_run_once(d->loop, 1);
        turns = netio_conn_pending(e->c) == had ? turns + 1 : 0; // what can leave has left
        CHECK(e->out - from < (64u << 20));
    }
    return e->out - from;
}

void closed_port(netio_loop *loop, char out[NETIO_ADDR_TEXT])
{
    netio_listener l;
    netio_addr a;
    CHECK_OK(netio_listener_open(&l, loop, test_loop_addr(), &end_plain, NULL));
    CHECK_OK(netio_listener_addr(l, &a));
    CHECK(netio_addr_format(&a, out, NETIO_ADDR_TEXT) > 0);
    netio_listener_close(l);
    netio_loop_run_once(loop, 0);
}
