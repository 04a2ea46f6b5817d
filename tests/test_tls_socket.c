// TLS over blocking sockets with deadlines: netio_tls_connect, netio_tls_wrap, and the stream that
// they give.
#include "tls/tls_test.h"

#if defined(NETIO_NO_STREAM) || defined(NETIO_NO_FRAME)
TEST(tls_socket, needs_streams) { SKIP("built without streams"); }
TEST_MAIN("tls_socket", T(tls_socket, needs_streams))
#else

// --- a server on a thread -----------------------------------------------------------------------

typedef struct peer {
    test_thread thread;
    netio_socket listener;
    char address[NETIO_ADDR_TEXT];
    netio_tls_ctx *ctx; // NULL: plain text
    void (*talk)(struct peer *p, netio_stream *st);
    int timeout_ms, clients;
    int err; // of the last handshake
    netio_tls_error why;
    size_t bytes;
    bool ok; // what `talk` found
} peer;

static void peer_run(void *arg)
{
    peer *p = (peer *)arg;
    for (int i = 0; i < p->clients; i++) {
        netio_socket s;
        netio_stream under, st;
        p->err = netio_accept(&s, p->listener, NULL, 10000);
        if (p->err < 0) return;
        under = netio_stream_from_socket(s);
        if (p->ctx) {
            p->err = netio_tls_wrap(&st, &under, NULL, p->ctx, &p->why, NULL, p->timeout_ms);
            if (p->err < 0) {
                netio_stream_close(&under);
                continue;
            }
        } else st = under;
        p->talk(p, &st);
    }
}

static void peer_start_for(int clients, peer *p, netio_tls_ctx *ctx,
                           void (*talk)(peer *p, netio_stream *st))
{
    char port[16];
    netio_addr a;
    memset(p, 0, sizeof *p);
    test_listen(&p->listener, p->address, "127.0.0.1:0");
    CHECK_OK(netio_local_addr(p->listener, &a));
    snprintf(port, sizeof port, "%u", netio_addr_port(&a));
    snprintf(p->address, sizeof p->address, "localhost:%s", port);
    p->ctx = ctx;
    p->talk = talk;
    p->timeout_ms = 10000;
    p->clients = clients;
    test_thread_start(&p->thread, peer_run, p);
}

static void peer_start(peer *p, netio_tls_ctx *ctx, void (*talk)(peer *p, netio_stream *st))
{
    peer_start_for(1, p, ctx, talk);
}

static void peer_stop(peer *p)
{
    test_thread_join(&p->thread);
    netio_close(&p->listener);
}

static void echo(peer *p, netio_stream *st)
{
    char buf[3000];
    ptrdiff_t n;
    while ((n = netio_stream_recv(st, buf, sizeof buf, 10000)) > 0) {
        p->bytes += (size_t)n;
        if (netio_stream_send_all(st, buf, (size_t)n, NULL, 10000) < 0) break;
    }
    p->ok = n == NETIO_EOF;
    netio_stream_close(st);
}

static netio_stream dial(const peer *p, netio_tls_ctx *ctx)
{
    netio_stream st;
    netio_tls_error why;
    int err = netio_tls_connect(&st, p->address, ctx, &why, NULL, 10000);
    if (err < 0) test_fail(__FILE__, __LINE__, "%s", why.text);
    return st;
}

// --- it works -----------------------------------------------------------------------------------

static void send_all(void *arg)
{
    netio_stream *st = (netio_stream *)arg;
    unsigned char *data = (unsigned char *)malloc(300000);
    test_fill(data, 300000, 3);
    netio_stream_send_all(st, data, 300000, NULL, 10000);
    free(data);
}

TEST(tls_socket, what_is_sent_comes_back)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    netio_tls_info info;
    peer p;
    char got[100];
    peer_start(&p, server, echo);
    netio_stream st = dial(&p, client);
    CHECK(st.socket != NETIO_INVALID_SOCKET);
    CHECK_OK(netio_tls_get_info(netio_tls_stream_engine(&st), &info));
    CHECK_STR("localhost", info.server_name);
    CHECK_STR("TLSv1.3", info.version_text);
    for (int i = 0; i < 20; i++) {
        CHECK_OK(netio_stream_send_all(&st, "hello", 5, NULL, 5000));
        CHECK_OK(netio_stream_recv_exact(&st, got, 5, NULL, 5000));
        CHECK_MEM("hello", got, 5);
    }
    unsigned char *want = (unsigned char *)malloc(60000), *back = (unsigned char *)malloc(60000);
    test_fill(want, 60000, 3);
    CHECK_OK(netio_stream_send_all(&st, want, 60000, NULL, 5000));
    CHECK_OK(netio_stream_recv_exact(&st, back, 60000, NULL, 5000));
    CHECK_MEM(want, back, 60000);
    free(want);
    free(back);
    CHECK_OK(netio_stream_shutdown(&st, 5000));
    CHECK_ERR(NETIO_EPIPE, netio_stream_send_all(&st, "x", 1, NULL, 5000));
    CHECK_ERR(NETIO_EOF, netio_stream_recv(&st, got, 1, 5000)); // its close_notify
    CHECK_OK(netio_stream_close(&st));
    CHECK_ERR(NETIO_EBADF, netio_stream_close(&st));
    peer_stop(&p);
    CHECK(p.ok);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

static void many_bytes(peer *p, netio_stream *st)
{
    unsigned char *data = (unsigned char *)malloc(300000), *got = (unsigned char *)malloc(300000);
    test_fill(data, 300000, 3);
    p->ok = netio_stream_recv_exact(st, got, 300000, &p->bytes, 10000) == 0 &&
            memcmp(data, got, 300000) == 0 &&
            netio_stream_send_all(st, got, 300000, NULL, 10000) == 0;
    free(data);
    free(got);
    netio_stream_close(st);
}

TEST(tls_socket, large_pieces_pass_whole)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    unsigned char *got = (unsigned char *)malloc(300000), *want = (unsigned char *)malloc(300000);
    peer p;
    peer_start(&p, server, many_bytes);
    netio_stream st = dial(&p, client);
    send_all(&st);
    CHECK_OK(netio_stream_recv_exact(&st, got, 300000, NULL, 10000));
    test_fill(want, 300000, 3);
    CHECK_MEM(want, got, 300000);
    CHECK_ERR(NETIO_EOF, netio_stream_recv(&st, got, 1, 5000));
    free(got);
    free(want);
    CHECK_OK(netio_stream_close(&st));
    peer_stop(&p);
    CHECK(p.ok);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_socket, a_stream_that_waits_owns_no_buffer)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    peer p;
    char got[8];
    peer_start(&p, server, echo);
    long before = test_blocks();
    netio_stream st = dial(&p, client);
    CHECK_OK(netio_stream_send_all(&st, "hello", 5, NULL, 5000));
    CHECK_OK(netio_stream_recv_exact(&st, got, 5, NULL, 5000));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_stream_recv(&st, got, 1, 50));
    // Stream, engine and name of both ends, two sessions; nothing of 32 KiB.
    CHECK_BETWEEN(3, 3 + 3 + 2, test_blocks() - before);
    netio_stream_close(&st);
    peer_stop(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

static void lines(peer *p, netio_stream *st)
{
    netio_decoder d;
    netio_frame f;
    netio_framing framing = netio_framing_line(1000);
    netio_decoder_init(&d, framing, NULL, 0);
    while (netio_stream_read_frame(st, &d, &f, 5000) == 0) {
        p->bytes += f.len;
        if (netio_stream_write_frame(st, &framing, &f, 5000) < 0) break;
    }
    netio_decoder_free(&d);
    netio_stream_close(st);
}

TEST(tls_socket, frames_pass_as_over_a_socket)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    netio_decoder d;
    netio_frame f;
    peer p;
    peer_start(&p, server, lines);
    netio_stream st = dial(&p, client);
    netio_decoder_init(&d, netio_framing_line(1000), NULL, 0);
    CHECK_OK(netio_stream_send_all(&st, "one\ntwo\nthr", 11, NULL, 5000));
    CHECK_OK(netio_stream_send_all(&st, "ee\n", 3, NULL, 5000));
    for (int i = 0; i < 3; i++) {
        static const char *const want[] = {"one", "two", "three"};
        CHECK_OK(netio_stream_read_frame(&st, &d, &f, 5000));
        CHECK_EQ(strlen(want[i]), f.len);
        CHECK_MEM(want[i], f.data, f.len);
    }
    netio_decoder_free(&d);
    netio_stream_close(&st);
    peer_stop(&p);
    CHECK_EQ(11, p.bytes);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_socket, a_second_connection_is_resumed)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    peer p;
    for (int i = 0; i < 2; i++) {
        char got[5];
        netio_tls_info info;
        peer_start(&p, server, echo);
        netio_stream st = dial(&p, client);
        CHECK_OK(netio_stream_send_all(&st, "hello", 5, NULL, 5000));
        CHECK_OK(netio_stream_recv_exact(&st, got, 5, NULL, 5000));
        CHECK_OK(netio_tls_get_info(netio_tls_stream_engine(&st), &info));
        CHECK_EQ(i, info.resumed);
        netio_stream_close(&st);
        peer_stop(&p);
    }
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- it is refused ------------------------------------------------------------------------------

TEST(tls_socket, each_bad_certificate_has_its_own_error_and_gets_no_byte)
{
    static const struct {
        const char *pem;
        unsigned verify;
    } rows[] = {{"other_name.pem", NETIO_TLS_NAME},
                {"expired.pem", NETIO_TLS_EXPIRED},
                {"self.pem", NETIO_TLS_UNTRUSTED},
                {"untrusted.pem", NETIO_TLS_UNTRUSTED}};
    netio_tls_ctx *client = tls_client_ctx(NULL);
    char texts[4][160];
    for (int i = 0; i < 4; i++) {
        netio_tls_ctx *server = tls_server_ctx(rows[i].pem, NULL);
        netio_tls_error why;
        netio_stream st;
        peer p;
        peer_start(&p, server, echo);
        CHECK_ERR(NETIO_ETLS, netio_tls_connect(&st, p.address, client, &why, NULL, 5000));
        CHECK_EQ(NETIO_TLS_VERIFY, why.code);
        CHECK_EQ(rows[i].verify, why.verify);
        memcpy(texts[i], why.text, 160);
        for (int k = 0; k < i; k++) CHECK(strcmp(texts[i], texts[k]) != 0);
        peer_stop(&p);
        CHECK_EQ(0, p.bytes);
        CHECK_ERR(NETIO_ETLS, p.err);
        CHECK_EQ(NETIO_TLS_ALERT, p.why.code);
        netio_tls_ctx_unref(server);
    }
    netio_tls_ctx_unref(client);
}

static void greet(peer *p, netio_stream *st)
{
    char buf[512];
    p->ok = netio_stream_send_all(st, "220 mail.test ESMTP\r\n", 21, NULL, 5000) == 0;
    while (netio_stream_recv(st, buf, sizeof buf, 5000) > 0) continue;
    netio_stream_close(st);
}

TEST(tls_socket, a_plain_peer_is_told_apart_from_a_bad_one)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    netio_tls_error why;
    netio_stream st;
    netio_socket s;
    peer p;
    peer_start(&p, NULL, greet);
    CHECK_ERR(NETIO_ETLS, netio_tls_connect(&st, p.address, client, &why, NULL, 5000));
    CHECK_EQ(NETIO_TLS_PROTOCOL, why.code);
    CHECK(strstr(why.text, "\"220 mail.test ES\"") != NULL);
    peer_stop(&p);
    peer_start(&p, server, echo);
    CHECK_OK(netio_connect(&s, p.address, NULL, 5000));
    CHECK_OK(netio_send_all(s, "GET / HTTP/1.0\r\n\r\n", 18, NULL, 5000));
    peer_stop(&p);
    CHECK_ERR(NETIO_ETLS, p.err);
    CHECK(strstr(p.why.text, "\"GET / HTTP/1.0..\"") != NULL);
    netio_close(&s);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_socket, failures_of_the_network_are_in_the_record_too)
{
    netio_tls_ctx *client = tls_client_ctx(NULL);
    netio_tls_error why;
    netio_stream st;
    netio_socket listener;
    char text[NETIO_ADDR_TEXT];
    test_listen(&listener, text, "127.0.0.1:0");
    netio_close(&listener);
    CHECK_ERR(NETIO_ECONNREFUSED, netio_tls_connect(&st, text, client, &why, NULL, 5000));
    CHECK_EQ(0, why.code);
    CHECK_STR("connect: connection refused", why.text);
    CHECK_ERR(NETIO_EINVAL, netio_tls_connect(&st, "no port", client, &why, NULL, 5000));
    CHECK_ERR(NETIO_EINVAL, netio_tls_connect(&st, NULL, client, &why, NULL, 5000));
    netio_tls_ctx_unref(client);
}

// --- time ---------------------------------------------------------------------------------------

static void hang_up(peer *p, netio_stream *st)
{
    char buf[2000];
    while (netio_stream_recv(st, buf, sizeof buf, 5000) > 0) continue;
    p->ok = true;
    netio_stream_close(st);
}

TEST(tls_socket, a_silent_server_costs_no_more_than_the_deadline)
{
    netio_tls_ctx *client = tls_client_ctx(NULL);
    netio_tls_error why;
    netio_stream st;
    peer p;
    peer_start(&p, NULL, hang_up); // reads the hello and says nothing
    uint64_t begin = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_tls_connect(&st, p.address, client, &why, NULL, 200));
    CHECK_BETWEEN(200, 4000, test_ms() - begin);
    CHECK(strstr(why.text, "TLS handshake: timed out") != NULL);
    peer_stop(&p);
    CHECK(p.ok); // the socket was closed
    netio_tls_ctx_unref(client);
}

TEST(tls_socket, a_silent_client_costs_no_more_than_the_deadline)
{
    netio_tls_ctx *server = tls_server_ctx("good.pem", NULL);
    netio_socket s[2];
    netio_stream under, st;
    netio_tls_error why;
    char byte;
    test_tcp_pair(&s[0], &s[1]);
    under = netio_stream_from_socket(s[1]);
    uint64_t begin = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_tls_wrap(&st, &under, NULL, server, &why, NULL, 200));
    CHECK_BETWEEN(200, 4000, test_ms() - begin);
    CHECK_EQ(s[1], under.socket); // still ours
    netio_stream_close(&under);
    CHECK_ERR(NETIO_EOF, netio_recv(s[0], &byte, 1, 5000));
    netio_close(&s[0]);
    netio_tls_ctx_unref(server);
}

// Sends one byte of a hello every 20 ms.
static void drip(void *arg)
{
    netio_socket s = *(netio_socket *)arg;
    static const char hello[] = {22, 3, 1, 1, 0, 1, 0, 0, (char)252, 3, 3};
    for (size_t i = 0; i < sizeof hello; i++) {
        if (netio_send(s, hello + i, 1, 1000) < 0) break;
        test_sleep_ms(20); // to be slow is the point
    }
}

TEST(tls_socket, a_slow_hello_does_not_extend_the_deadline)
{
    netio_tls_ctx *server = tls_server_ctx("good.pem", NULL);
    netio_socket s[2];
    netio_stream under, st;
    test_thread t;
    test_tcp_pair(&s[0], &s[1]);
    test_thread_start(&t, drip, &s[0]);
    under = netio_stream_from_socket(s[1]);
    uint64_t begin = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_tls_wrap(&st, &under, NULL, server, NULL, NULL, 120));
    CHECK_BETWEEN(120, 4000, test_ms() - begin);
    test_thread_join(&t);
    netio_stream_close(&under);
    netio_close(&s[0]);
    netio_tls_ctx_unref(server);
}

static netio_socket release[2]; // a byte in it lets `wait_then_read` go on

static void wait_then_read(peer *p, netio_stream *st)
{
    char buf[4000];
    ptrdiff_t n;
    netio_recv(release[1], buf, 1, 10000);
    while ((n = netio_stream_recv(st, buf, sizeof buf, 10000)) > 0) {
        for (ptrdiff_t i = 0; i < n; i++) // the bytes count up, whatever the sender went through
            if ((unsigned char)buf[i] != (p->bytes + (size_t)i) % 251) p->err = 1;
        p->bytes += (size_t)n;
    }
    p->ok = n == NETIO_EOF;
    netio_stream_close(st);
}

TEST(tls_socket, a_send_that_runs_out_of_time_loses_and_repeats_nothing)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    size_t total = 0, goal = 16u << 20, done;
    unsigned char *data = (unsigned char *)malloc(251 * 4000);
    int err = 0;
    bool late = false;
    peer p;
    for (size_t i = 0; i < 251 * 4000; i++) data[i] = (unsigned char)(i % 251);
    CHECK_OK(netio_pair(release, NETIO_STREAM));
    peer_start(&p, server, wait_then_read);
    netio_stream st = dial(&p, client);
    while (total < goal) {
        err = netio_stream_send_all(&st, data + total % 251, 200000, &done, late ? 5000 : 30);
        total += done;
        if (err == NETIO_ETIMEDOUT && !late) {
            late = true;
            CHECK_EQ(1, netio_send(release[0], "x", 1, 1000));
            continue;
        }
        CHECK_OK(err);
    }
    CHECK(late);
    CHECK_OK(netio_stream_close(&st));
    peer_stop(&p);
    CHECK_EQ(total, p.bytes);
    CHECK(p.ok && p.err == 0);
    free(data);
    netio_close(&release[0]);
    netio_close(&release[1]);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST(tls_socket, timeout_0_never_waits)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    netio_tls *t;
    char byte;
    peer p;
    peer_start(&p, server, echo);
    netio_stream st = dial(&p, client);
    uint64_t begin = test_ms();
    for (int i = 0; i < 100; i++) CHECK_ERR(NETIO_EAGAIN, netio_stream_recv(&st, &byte, 1, 0));
    CHECK_BETWEEN(0, 2000, test_ms() - begin);
    CHECK_OK(netio_stream_send_all(&st, "x", 1, NULL, 0));
    CHECK_EQ(1, netio_stream_recv(&st, &byte, 1, 5000));
    netio_stream_close(&st);
    peer_stop(&p);
    CHECK(netio_tls_stream_engine(&st) == NULL);
    CHECK_OK(netio_tls_server(&t, server));
    netio_tls_destroy(t);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- ends ---------------------------------------------------------------------------------------

static void cut_off(peer *p, netio_stream *st)
{
    char byte;
    p->ok = netio_stream_send_all(st, "half", 4, NULL, 5000) == 0 &&
            netio_stream_recv(st, &byte, 1, 5000) == 1;
    netio_shutdown(st->socket, NETIO_SHUT_WRITE); // as if the program died: no close_notify
    netio_stream_recv(st, &byte, 1, 5000);
    netio_stream_close(st);
}

TEST(tls_socket, a_connection_that_is_cut_is_no_end)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    netio_tls_error e;
    char got[8];
    peer p;
    peer_start(&p, server, cut_off);
    netio_stream st = dial(&p, client);
    CHECK_OK(netio_stream_send_all(&st, "x", 1, NULL, 5000));
    CHECK_OK(netio_stream_recv_exact(&st, got, 4, NULL, 5000));
    CHECK_ERR(NETIO_ETRUNCATED, netio_stream_recv(&st, got, 1, 5000));
    CHECK_OK(netio_tls_get_error(netio_tls_stream_engine(&st), &e));
    CHECK_EQ(NETIO_TLS_CUT_OFF, e.code);
    netio_stream_close(&st);
    peer_stop(&p);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- upgrades and layers ------------------------------------------------------------------------

static netio_tls_ctx *upgrade_ctx;

static void starttls(peer *p, netio_stream *st)
{
    char got[9];
    netio_stream secure;
    if (netio_stream_recv_exact(st, got, 9, NULL, 5000) != 0 || memcmp(got, "STARTTLS\n", 9) != 0 ||
        netio_stream_send_all(st, "go ahead\n", 9, NULL, 5000) != 0) {
        netio_stream_close(st);
        return;
    }
    p->err = netio_tls_wrap(&secure, st, NULL, upgrade_ctx, &p->why, NULL, 5000);
    if (p->err < 0) netio_stream_close(st);
    else echo(p, &secure);
}

TEST(tls_socket, a_plain_connection_can_be_upgraded)
{
    netio_tls_ctx *client = tls_client_ctx(NULL);
    netio_stream plain, st;
    netio_socket s;
    netio_tls_error why;
    char got[9];
    peer p;
    upgrade_ctx = tls_server_ctx("good.pem", NULL);
    peer_start(&p, NULL, starttls);
    CHECK_OK(netio_connect(&s, p.address, NULL, 5000));
    plain = netio_stream_from_socket(s);
    CHECK_OK(netio_stream_send_all(&plain, "STARTTLS\n", 9, NULL, 5000));
    CHECK_OK(netio_stream_recv_exact(&plain, got, 9, NULL, 5000));
    CHECK_OK(netio_tls_wrap(&st, &plain, "example.test", client, &why, NULL, 5000));
    CHECK_EQ(NETIO_INVALID_SOCKET, plain.socket); // taken
    CHECK_OK(netio_stream_send_all(&st, "hi", 2, NULL, 5000));
    CHECK_OK(netio_stream_recv_exact(&st, got, 2, NULL, 5000));
    netio_stream_close(&st);
    peer_stop(&p);
    CHECK_EQ(2, p.bytes);
    netio_tls_ctx_unref(upgrade_ctx);
    netio_tls_ctx_unref(client);
}

static void tls_inside(peer *p, netio_stream *st)
{
    netio_stream inner;
    p->err = netio_tls_wrap(&inner, st, NULL, upgrade_ctx, &p->why, NULL, 5000);
    if (p->err < 0) netio_stream_close(st);
    else echo(p, &inner);
}

TEST(tls_socket, tls_runs_inside_tls)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    netio_tls_error why;
    netio_stream inner;
    char got[5];
    peer p;
    upgrade_ctx = tls_server_ctx("rsa.pem", NULL);
    peer_start(&p, server, tls_inside);
    netio_stream outer = dial(&p, client);
    CHECK_OK(netio_tls_wrap(&inner, &outer, "www.example.test", client, &why, NULL, 5000));
    for (int i = 0; i < 10; i++) {
        CHECK_OK(netio_stream_send_all(&inner, "hello", 5, NULL, 5000));
        CHECK_OK(netio_stream_recv_exact(&inner, got, 5, NULL, 5000));
        CHECK_MEM("hello", got, 5);
    }
    netio_stream_close(&inner);
    peer_stop(&p);
    CHECK(p.ok);
    netio_tls_ctx_unref(upgrade_ctx);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

// --- threads ------------------------------------------------------------------------------------

typedef struct dialer {
    test_thread thread;
    netio_tls_ctx *ctx;
    const peer *p;
    int failed;
} dialer;

static void dial_often(void *arg)
{
    dialer *d = (dialer *)arg;
    for (int i = 0; i < 8; i++) {
        netio_stream st;
        char got[4];
        netio_tls_ctx *ref = netio_tls_ctx_ref(d->ctx);
        int err = netio_tls_connect(&st, d->p->address, ref, NULL, NULL, 10000);
        if (err == 0) err = netio_stream_send_all(&st, "ping", 4, NULL, 10000);
        if (err == 0) err = netio_stream_recv_exact(&st, got, 4, NULL, 10000);
        if (err < 0) d->failed = err;
        else netio_stream_close(&st);
        netio_tls_ctx_unref(ref);
    }
}

TEST(tls_socket, one_context_serves_many_threads)
{
    netio_tls_ctx *client = tls_client_ctx(NULL), *server = tls_server_ctx("good.pem", NULL);
    peer p[3];
    dialer d[3];
    for (int i = 0; i < 3; i++) peer_start_for(8, &p[i], server, echo);
    for (int i = 0; i < 3; i++) {
        d[i].ctx = client;
        d[i].p = &p[i];
        d[i].failed = 0;
        test_thread_start(&d[i].thread, dial_often, &d[i]);
    }
    for (int i = 0; i < 3; i++) test_thread_join(&d[i].thread);
    for (int i = 0; i < 3; i++) peer_stop(&p[i]);
    for (int i = 0; i < 3; i++) CHECK_OK(d[i].failed);
    netio_tls_ctx_unref(client);
    netio_tls_ctx_unref(server);
}

TEST_MAIN("tls_socket", T(tls_socket, what_is_sent_comes_back),
          T(tls_socket, large_pieces_pass_whole), T(tls_socket, a_stream_that_waits_owns_no_buffer),
          T(tls_socket, frames_pass_as_over_a_socket),
          T(tls_socket, a_second_connection_is_resumed),
          T(tls_socket, each_bad_certificate_has_its_own_error_and_gets_no_byte),
          T(tls_socket, a_plain_peer_is_told_apart_from_a_bad_one),
          T(tls_socket, failures_of_the_network_are_in_the_record_too),
          T(tls_socket, a_silent_server_costs_no_more_than_the_deadline),
          T(tls_socket, a_silent_client_costs_no_more_than_the_deadline),
          T(tls_socket, a_slow_hello_does_not_extend_the_deadline),
          T(tls_socket, a_send_that_runs_out_of_time_loses_and_repeats_nothing),
          T(tls_socket, timeout_0_never_waits), T(tls_socket, a_connection_that_is_cut_is_no_end),
          T(tls_socket, a_plain_connection_can_be_upgraded), T(tls_socket, tls_runs_inside_tls),
          T(tls_socket, one_context_serves_many_threads))
#endif
