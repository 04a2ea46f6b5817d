// BACKENDS: all memory
//
// TLS as a filter of connections, over sockets and over the network in memory.
#include "tls/tls_test.h"

#include "engine.h"

static netio_tls_ctx *client_ctx, *server_ctx;

static void contexts(tls_change client, const char *pem, tls_change server)
{
    client_ctx = tls_client_ctx(client);
    server_ctx = tls_server_ctx(pem, server);
}

static void contexts_end(void)
{
    netio_tls_ctx_unref(client_ctx);
    netio_tls_ctx_unref(server_ctx);
    client_ctx = server_ctx = NULL;
}

static void tls_duo(duo *d)
{
    duo_init(d);
    d->dial.conn.filter = netio_tls_filter(client_ctx);
    d->listen.conn.filter = netio_tls_filter(server_ctx);
    d->dial.server_name = "example.test";
}

static void only_1_2(netio_tls_config *cfg) { cfg->max_version = NETIO_TLS_1_2; }

// --- bytes --------------------------------------------------------------------------------------

TEST(tls_conn, all_bytes_and_both_ends_pass)
{
    static const struct {
        uint64_t len;
        size_t recv_buffer, piece;
        int small;
    } rows[] = {{1, 0, 0, 0},         {300000, 0, 0, 0},      {300000, 4096, 0, 0},
                {300000, 0, 0, 8192}, {100000, 4096, 100, 0}, {50000, 0, 1, 0}};
    for (int v = 0; v < 2; v++) {
        contexts(v ? NULL : only_1_2, "good.pem", NULL);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            duo d;
            tls_duo(&d);
            d.loop_opts.recv_buffer = rows[i].recv_buffer;
            d.small = rows[i].small;
            d.a.out_seed = d.a.seed = 91;
            d.a.out_len = rows[i].len;
            d.a.piece = rows[i].piece;
            d.a.then = 's';
            d.b.echo = true;
            d.dial.conn.read_always = true; // it only writes at first, as the other end does
            duo_open(&d, &end_all, &end_plain);
            end_pump(&d.a);
            RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
            CHECK_ERR(0, d.a.err);
            CHECK_ERR(0, d.b.err);
            CHECK_EQ(rows[i].len, d.a.got);
            CHECK_EQ(1, d.a.ended);
            duo_close(&d);
        }
        contexts_end();
    }
}

// What is written before the handshake is done goes out after it.
TEST(tls_conn, writes_may_come_before_the_handshake)
{
    duo d;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    d.b.seed = 92;
    duo_start(&d, &end_all, &end_plain);
    d.a.out_seed = 92;
    d.a.out_len = 100000;
    d.a.then = 'c';
    end_pump(&d.a);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(100000, d.b.got);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
    contexts_end();
}

TEST(tls_conn, small_writes_of_a_turn_leave_in_full_records)
{
    duo d;
    char piece[1000] = {0};
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    duo_open(&d, &end_all, &end_plain);
    netio_stats before, after;
    test_run_for(d.loop, 5); // tickets
    CHECK_OK(netio_conn_stats(d.a.c, &before));
    for (int i = 0; i < 60; i++) CHECK_OK(CALL(netio_conn_write(d.a.c, piece, sizeof piece)));
    CHECK_EQ(60000, netio_conn_pending(d.a.c));
    RUN_UNTIL(d.loop, d.b.got == 60000);
    CHECK_OK(netio_conn_stats(d.a.c, &after));
    // Four records of 16 KiB, each with 22 bytes; alone they would cost 1,320.
    CHECK_BETWEEN(60000 + 4 * 22, 60000 + 6 * 22, after.bytes_out - before.bytes_out);
    duo_close(&d);
    contexts_end();
}

TEST(tls_conn, files_and_owned_bytes_are_encrypted_too)
{
    duo d;
    netio_file file;
    FILE *f = stream_file("tls", 200000, 93, &file);
    static char owned[20000];
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    d.b.seed = 93;
    duo_open(&d, &end_all, &end_plain);
    stream_fill(owned, sizeof owned, 93, 0);
    CHECK_OK(CALL(netio_conn_write_owned(d.a.c, owned, sizeof owned, NULL, NULL)));
    CHECK_OK(CALL(netio_conn_write_file(d.a.c, file, 20000, 180000, NULL, NULL)));
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(200000, d.b.got);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
    fclose(f);
    contexts_end();
}

TEST(tls_conn, unread_and_pause_work_behind_it)
{
    duo d;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    d.a.out_seed = d.b.seed = 94;
    d.a.out_len = 400000;
    duo_open(&d, &end_all, &end_all);
    end_pump(&d.a);
    for (int i = 0; i < 10; i++) {
        CHECK_OK(CALL(netio_conn_pause(d.b.c)));
        test_run_for(d.loop, 3);
        uint64_t got = d.b.got;
        test_run_for(d.loop, 3);
        CHECK_EQ(got, d.b.got);
        CHECK_OK(CALL(netio_conn_resume(d.b.c)));
        test_run_for(d.loop, 1);
    }
    RUN_UNTIL(d.loop, d.b.got == 400000);
    duo_close(&d);
    contexts_end();
}

// --- framing ------------------------------------------------------------------------------------

static struct {
    int frames;
    size_t bytes;
    bool wrong;
} framed;

static void on_frame(netio_conn c, const netio_frame *f)
{
    framed.wrong |= f->len != (size_t)framed.frames % 3000 + 1;
    framed.frames++;
    framed.bytes += f->len;
    if (framed.frames == 200) netio_conn_close(c);
}

TEST(tls_conn, frames_pass_as_without_it)
{
    static const netio_handler reader = {.on_frame = on_frame};
    static char line[3000];
    duo d;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    memset(&framed, 0, sizeof framed);
    memset(line, 'x', sizeof line);
    d.listen.conn.framing = d.dial.conn.framing = netio_framing_length(2, 5000);
    d.loop_opts.recv_buffer = 4096;
    d.dial.conn.write_queue_max = 4 << 20;
    duo_start(&d, &end_all, &reader);
    for (size_t i = 0; i < 200; i++) CHECK_OK(CALL(netio_conn_send(d.a.c, line, i % 3000 + 1)));
    RUN_UNTIL(d.loop, d.a.ended || d.a.closed);
    CHECK_EQ(200, framed.frames);
    CHECK(!framed.wrong);
    CHECK_ERR(0, d.a.err);
    test_loop_destroy(&d.loop);
    contexts_end();
}

// --- ends ---------------------------------------------------------------------------------------

static void answer_end(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what != ENDED) return;
    CHECK_OK(CALL(netio_conn_write(e->c, "late words", 10)));
    CHECK_OK(CALL(netio_conn_shutdown(e->c)));
}

TEST(tls_conn, shutdown_ends_one_direction_only)
{
    duo d;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    d.b.on = answer_end;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_shutdown(d.a.c)));
    CHECK_ERR(NETIO_EPIPE, CALL(netio_conn_write(d.a.c, "x", 1)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_EQ(10, d.a.got);
    CHECK_STR("odec", d.a.log);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
    contexts_end();
}

static void close_on_data(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    static char page[100000];
    if (what != DATA) return;
    CHECK_OK(CALL(netio_conn_write(e->c, page, sizeof page)));
    CHECK_OK(CALL(netio_conn_close(e->c)));
}

TEST(tls_conn, a_close_in_on_data_still_says_close_notify)
{
    duo d;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    d.small = 8192;
    d.b.on = close_on_data;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "GET /", 5)));
    RUN_UNTIL(d.loop, d.a.ended);
    CHECK_EQ(100000, d.a.got);
    CHECK_OK(CALL(netio_conn_close(d.a.c)));
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
    CHECK_ERR(0, d.a.err);
    CHECK_ERR(0, d.b.err);
    duo_close(&d);
    contexts_end();
}

TEST(tls_conn, an_end_without_close_notify_is_an_error)
{
    duo d;
    netio_socket s;
    if (test_in_memory()) SKIP("needs the socket below");
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "half", 4)));
    RUN_UNTIL(d.loop, d.b.got == 4);
    CHECK_OK(netio_conn_socket(d.a.c, &s));
    CHECK_OK(netio_shutdown(s, NETIO_SHUT_WRITE)); // as if the program died
    RUN_UNTIL(d.loop, d.b.closed);
    CHECK_ERR(NETIO_ETRUNCATED, d.b.err);
    CHECK_EQ(0, d.b.ended);
    CHECK(strstr(d.b.error.text, "without close_notify") != NULL);
    duo_close(&d);
    contexts_end();
}

// --- who is there -------------------------------------------------------------------------------

static netio_tls_info info_of(netio_conn c)
{
    netio_tls_info info;
    CHECK_OK(netio_tls_conn_info(c, &info));
    return info;
}

static void with_alpn(netio_tls_config *cfg)
{
    static const char *const names[] = {"h2"};
    cfg->alpn = names;
    cfg->alpn_count = 1;
}

TEST(tls_conn, the_handler_can_ask_who_is_there)
{
    duo d;
    uint8_t keys[2][16];
    contexts(with_alpn, "good.pem", with_alpn);
    tls_duo(&d);
    duo_open(&d, &end_all, &end_all);
    CHECK_STR("TLSv1.3", info_of(d.a.c).version_text);
    CHECK_STR("h2", info_of(d.a.c).alpn);
    CHECK_STR("h2", info_of(d.b.c).alpn);
    CHECK_STR("example.test", info_of(d.a.c).server_name);
    CHECK_STR("example.test", info_of(d.b.c).server_name);
    CHECK_STR("CN=example.test", info_of(d.a.c).chain[0].subject);
    netio_tls *a = netio_tls_conn_engine(d.a.c), *b = netio_tls_conn_engine(d.b.c);
    CHECK_OK(netio_tls_export(a, "EXPORTER-x", NULL, 0, keys[0], 16));
    CHECK_OK(netio_tls_export(b, "EXPORTER-x", NULL, 0, keys[1], 16));
    CHECK_MEM(keys[0], keys[1], 16);
    duo_close(&d);
    contexts_end();

    duo_init(&d);
    duo_open(&d, &end_all, &end_all); // without TLS
    netio_tls_info info;
    netio_tls_error e;
    CHECK_ERR(NETIO_ENOENT, netio_tls_conn_info(d.a.c, &info));
    CHECK_ERR(NETIO_ENOENT, netio_tls_conn_error(d.a.c, &e));
    duo_close(&d);
}

TEST(tls_conn, the_host_that_was_dialed_is_checked)
{
    duo d;
    contexts(NULL, "ip4.pem", NULL); // for 127.0.0.1 and nothing else
    tls_duo(&d);
    d.dial.server_name = NULL;
    duo_open(&d, &end_all, &end_all);
    CHECK_STR("127.0.0.1", info_of(d.a.c).server_name);
    duo_close(&d);
    contexts_end();
}

static struct {
    int refused;
    netio_error why;
} gate;

static void on_refused(void *user, const netio_addr *peer, const netio_error *why)
{
    (void)user;
    CHECK(netio_addr_family(peer) != 0);
    gate.refused++;
    gate.why = *why;
}

static netio_tls_error last;

static void note_error(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what == CLOSED) CHECK_OK(netio_tls_conn_error(e->c, &last));
}

TEST(tls_conn, each_bad_certificate_has_its_own_error_and_gets_no_byte)
{
    static const struct {
        const char *pem, *text;
        unsigned verify;
    } rows[] = {{"other_name.pem", "is for other.test, not for", NETIO_TLS_NAME},
                {"expired.pem", "expired on", NETIO_TLS_EXPIRED},
                {"self.pem", "is self-signed", NETIO_TLS_UNTRUSTED},
                {"untrusted.pem", "is unknown", NETIO_TLS_UNTRUSTED}};
    for (int i = 0; i < 4; i++)
        for (int v = 0; v < 2; v++) {
            duo d;
            contexts(v ? NULL : only_1_2, rows[i].pem, NULL);
            tls_duo(&d);
            memset(&gate, 0, sizeof gate);
            d.listen.on_refused = on_refused;
            d.a.on = note_error;
            duo_start(&d, &end_all, &end_all);
            CHECK_OK(CALL(netio_conn_write(d.a.c, "secret", 6)));
            RUN_UNTIL(d.loop, d.a.closed && gate.refused);
            CHECK_STR("c", d.a.log);
            CHECK_ERR(NETIO_ETLS, d.a.err);
            CHECK_EQ(NETIO_STAGE_HANDSHAKE, d.a.error.stage);
            if (!strstr(d.a.error.text, rows[i].text)) test_fail("", 0, "%s", d.a.error.text);
            CHECK_EQ(NETIO_TLS_VERIFY, last.code);
            CHECK_EQ(rows[i].verify, last.verify);
            CHECK_STR("", d.b.log); // the handler never saw it
            CHECK_ERR(NETIO_ETLS, gate.why.err);
            CHECK(strstr(gate.why.text, "the peer refused") != NULL);
            test_loop_destroy(&d.loop);
            end_check(&d.a);
            contexts_end();
        }
}

TEST(tls_conn, plain_text_is_refused_with_what_it_said)
{
    duo d;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    memset(&gate, 0, sizeof gate);
    d.dial.conn.filter.ops = NULL; // a plain client
    d.listen.on_refused = on_refused;
    duo_start(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "GET / HTTP/1.1\r\n\r\n", 18)));
    RUN_UNTIL(d.loop, gate.refused);
    CHECK_ERR(NETIO_ETLS, gate.why.err);
    CHECK(strstr(gate.why.text, "\"GET /") != NULL);
    RUN_UNTIL(d.loop, d.a.ended || d.a.closed);
    test_loop_destroy(&d.loop);
    contexts_end();
}

// What is left of a context that could not be made, with the error ignored.
TEST(tls_conn, a_filter_without_a_context_lets_nobody_in)
{
    duo d;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    memset(&gate, 0, sizeof gate);
    d.listen.conn.filter = netio_tls_filter(NULL);
    d.listen.on_refused = on_refused;
    duo_start(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "secret", 6)));
    RUN_UNTIL(d.loop, gate.refused && d.a.closed);
    CHECK_ERR(NETIO_EINVAL, gate.why.err);
    CHECK_EQ(0, d.a.opened);
    test_loop_destroy(&d.loop);
    contexts_end();
}

TEST(tls_conn, a_silent_client_is_refused_in_time)
{
    duo d;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    memset(&gate, 0, sizeof gate);
    d.dial.conn.filter.ops = NULL;
    d.listen.on_refused = on_refused;
    d.listen.conn.handshake_timeout_ms = 100;
    duo_start(&d, &end_all, &end_all);
    RUN_UNTIL(d.loop, d.a.opened);
    uint64_t begin = netio_loop_now_ms(d.loop);
    RUN_UNTIL(d.loop, gate.refused);
    CHECK_ERR(NETIO_ETIMEDOUT, gate.why.err);
    CHECK_EQ(NETIO_STAGE_HANDSHAKE, gate.why.stage);
    CHECK_BETWEEN(90, 4000, netio_loop_now_ms(d.loop) - begin);
    RUN_UNTIL(d.loop, d.a.ended || d.a.closed); // no waiting for a close_notify
    test_loop_destroy(&d.loop);
    contexts_end();
}

static void mutual(netio_tls_config *cfg)
{
    cfg->ca_file = tls_file("ca.crt");
    cfg->client_cert = NETIO_TLS_CLIENT_CERT_REQUIRED;
}

static void with_cert(netio_tls_config *cfg) { cfg->cert_file = tls_file("client2.pem"); }

TEST(tls_conn, client_certificates_are_required_and_shown)
{
    duo d;
    contexts(with_cert, "good.pem", mutual);
    tls_duo(&d);
    duo_open(&d, &end_all, &end_all);
    CHECK_STR("O=netio,CN=Client\\, Ltd.", info_of(d.b.c).chain[0].subject);
    duo_close(&d);
    netio_tls_ctx_unref(client_ctx);
    client_ctx = tls_client_ctx(NULL);
    tls_duo(&d);
    memset(&gate, 0, sizeof gate);
    d.listen.on_refused = on_refused;
    duo_start(&d, &end_all, &end_all);
    RUN_UNTIL(d.loop, d.a.closed && gate.refused);
    CHECK_ERR(NETIO_ETLS, d.a.err);
    CHECK(strstr(gate.why.text, "certificate") != NULL);
    test_loop_destroy(&d.loop);
    contexts_end();
}

// --- in mid-stream ------------------------------------------------------------------------------

static void starttls_server(end *e, int what, const void *data, size_t len)
{
    if (what == DATA && e->secured == 0 && len >= 8 && memcmp(data, "STARTTLS", 8) == 0) {
        CHECK_OK(CALL(netio_conn_write(e->c, "go ahead", 8)));
        int err = CALL(netio_conn_add_filter(e->c, netio_tls_filter(server_ctx)));
        CHECK_OK(err);
    } else if (what == DATA && e->secured) {
        CHECK_OK(CALL(netio_conn_write(e->c, data, len)));
    }
}

static void starttls_client(end *e, int what, const void *data, size_t len)
{
    (void)data, (void)len;
    if (what == DATA && e->got == 8)
        CHECK_OK(CALL(netio_tls_start_client(e->c, client_ctx, "www.example.test", NULL)));
    if (what == SECURED) CHECK_OK(CALL(netio_conn_write(e->c, "private", 7)));
}

TEST(tls_conn, a_plain_connection_can_be_upgraded)
{
    duo d;
    contexts(NULL, "good.pem", NULL);
    duo_init(&d);
    d.a.on = starttls_client;
    d.b.on = starttls_server;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "STARTTLS", 8)));
    RUN_UNTIL(d.loop, d.a.got == 15);
    CHECK_STR("odsd", d.a.log);
    CHECK_STR("odsd", d.b.log);
    CHECK_STR("www.example.test", info_of(d.b.c).server_name);
    duo_close(&d);
    contexts_end();
}

static int injected;

static void keep_rest(end *e, int what, const void *data, size_t len)
{
    (void)data;
    if (what != DATA) return;
    CHECK(len > 8);
    CHECK_OK(CALL(netio_conn_unread(e->c, len - 8))); // a line follows the command
    injected = CALL(netio_conn_add_filter(e->c, netio_tls_filter(server_ctx)));
    CHECK_OK(CALL(netio_conn_abort(e->c)));
}

TEST(tls_conn, bytes_behind_the_upgrade_command_forbid_it)
{
    duo d;
    contexts(NULL, "good.pem", NULL);
    duo_init(&d);
    d.b.on = keep_rest;
    duo_open(&d, &end_all, &end_all);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "STARTTLSRCPT TO:<x>", 19)));
    RUN_UNTIL(d.loop, d.b.closed);
    CHECK_ERR(NETIO_EPROTO, injected);
    duo_close(&d);
    contexts_end();
}

TEST(tls_conn, the_role_can_be_told)
{
    netio_conn pair[2];
    netio_pair_opts opts;
    netio_loop *loop;
    end a, b;
    contexts(NULL, "good.pem", NULL);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    memset(&opts, 0, sizeof opts);
    opts.a.user = &a;
    opts.b.user = &b;
    CHECK_OK(test_loop_create(&loop, NULL));
    CHECK_OK(netio_conn_pair(pair, loop, &end_all, &end_all, &opts));
    CHECK_ERR(NETIO_EINVAL, CALL(netio_tls_start_client(pair[0], client_ctx, "", NULL)));
    CHECK_ERR(NETIO_ENOENT, CALL(netio_tls_start_server(pair[1], client_ctx)));
    CHECK_OK(CALL(netio_tls_start_client(pair[0], client_ctx, "example.test", NULL)));
    CHECK_OK(CALL(netio_tls_start_server(pair[1], server_ctx)));
    CHECK_OK(CALL(netio_conn_write(pair[0], "hello", 5)));
    RUN_UNTIL(loop, b.got == 5);
    CHECK_STR("example.test", info_of(pair[1]).server_name);
    test_loop_destroy(&loop);
    contexts_end();
}

// --- many, and over time ------------------------------------------------------------------------

static const char *serial_of(netio_conn c, char out[64])
{
    netio_buf s = info_of(c).chain[0].serial;
    out[0] = 0;
    for (size_t i = 0; i < s.len && i < 20; i++)
        snprintf(out + 2 * i, 3, "%02x", ((const uint8_t *)s.data)[i]);
    return out;
}

TEST(tls_conn, a_certificate_is_renewed_without_dropping_anyone)
{
    duo d;
    static end accepted[3];
    pool p;
    end second;
    char before[64], after[64];
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    memset(&p, 0, sizeof p);
    memset(&second, 0, sizeof second);
    p.kind = KIND_POOL;
    p.ends = accepted;
    p.cap = 3;
    p.like.echo = true;
    d.listen.conn.user = &p;
    duo_open(&d, &end_all, &end_all);
    RUN_UNTIL(d.loop, p.used == 1 && accepted[0].opened);
    serial_of(d.a.c, before);
    netio_tls_ctx *fresh = tls_server_ctx("rsa.pem", NULL);
    CHECK_OK(CALL(netio_listener_set_filter(d.listener, netio_tls_filter(fresh))));
    netio_tls_ctx_unref(fresh); // the listener has it
    netio_tls_ctx_unref(server_ctx);
    server_ctx = NULL;
    duo_dial(&d, &second, &end_all);
    RUN_UNTIL(d.loop, second.opened && p.used == 2);
    CHECK(strcmp(before, serial_of(second.c, after)) != 0);
    CHECK_OK(CALL(netio_conn_write(d.a.c, "still here", 10)));
    RUN_UNTIL(d.loop, d.a.got == 10);
    CHECK_STR(before, serial_of(d.a.c, after));
    test_loop_destroy(&d.loop);
    end_check(&second);
    contexts_end();
}

enum { MANY = 100 };

TEST(tls_conn, many_clients_at_once_are_all_served)
{
    static end clients[MANY], accepted[MANY + 1];
    duo d;
    pool p;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    memset(clients, 0, sizeof clients);
    memset(accepted, 0, sizeof accepted);
    memset(&p, 0, sizeof p);
    p.kind = KIND_POOL;
    p.ends = accepted;
    p.cap = MANY + 1;
    p.like.echo = true;
    d.listen.conn.user = &p;
    d.loop_opts.recv_buffer = 4096; // records are larger
    d.dial.timeout_ms = 60000;
    d.listen.conn.handshake_timeout_ms = 60000;
    duo_open(&d, &end_all, &end_plain);
    for (int i = 0; i < MANY; i++) {
        clients[i].seed = clients[i].out_seed = 100 + (uint32_t)i;
        clients[i].out_len = 20000;
        clients[i].then = 's';
        duo_dial(&d, &clients[i], &end_all);
        end_pump(&clients[i]);
    }
    for (int i = 0; i < MANY; i++) {
        RUN_UNTIL(d.loop, clients[i].closed);
        CHECK_ERR(0, clients[i].err);
        CHECK_EQ(20000, clients[i].got);
        end_check(&clients[i]);
    }
    test_loop_destroy(&d.loop);
    contexts_end();
}

// Dials them all to an echo server, whose ends are `accepted`, one more than clients.
static void crowd_open(duo *d, pool *p, end *clients, end *accepted, int count)
{
    memset(clients, 0, (size_t)count * sizeof *clients);
    memset(accepted, 0, (size_t)(count + 1) * sizeof *accepted);
    memset(p, 0, sizeof *p);
    p->kind = KIND_POOL;
    p->ends = accepted;
    p->cap = (size_t)count + 1;
    p->like.echo = true;
    d->listen.conn.user = p;
    d->dial.timeout_ms = d->listen.conn.handshake_timeout_ms = 60000;
    duo_open(d, &end_all, &end_plain);
    for (int i = 0; i < count; i++) duo_dial(d, &clients[i], &end_all);
}

static int opened_of(const end *ends, int count)
{
    int n = 0;
    for (int i = 0; i < count; i++) n += ends[i].opened;
    return n;
}

// A flood of handshakes leaves time for the others.
TEST(tls_conn, a_turn_finishes_one_handshake_at_most)
{
    static end clients[20], accepted[21];
    duo d;
    pool p;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    crowd_open(&d, &p, clients, accepted, 20);
    int most = 0, before = opened_of(accepted, 21), now = before;
    for (uint64_t by = test_ms() + 30000; now < 21 && test_ms() < by; before = now) {
        CHECK(netio_loop_run_once(d.loop, 10) >= 0);
        now = opened_of(accepted, 21);
        if (now - before > most) most = now - before;
    }
    CHECK_EQ(21, now);
    CHECK_EQ(1, most);
    duo_close(&d);
    for (int i = 0; i < 20; i++) end_check(&clients[i]);
    contexts_end();
}

// Whoever stands in line and leaves it does not stop those behind.
TEST(tls_conn, handshakes_that_are_given_up_hold_up_nobody)
{
    static end clients[30], accepted[31];
    duo d;
    pool p;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    crowd_open(&d, &p, clients, accepted, 30);
    for (int i = 0; i < 30; i += 3) {
        for (int turn = 0; turn < 3; turn++) CHECK(netio_loop_run_once(d.loop, 1) >= 0);
        if (!clients[i].opened) CHECK_OK(CALL(netio_conn_abort(clients[i].c)));
    }
    for (int i = 0; i < 30; i++) RUN_UNTIL(d.loop, clients[i].opened || clients[i].closed);
    CHECK(opened_of(clients, 30) >= 20);
    test_loop_destroy(&d.loop);
    contexts_end();
}

// --- what it costs ------------------------------------------------------------------------------

static void no_tickets(netio_tls_config *cfg) { cfg->no_tickets = true; }

// Of netio, for one end of a connection that has echoed something and is idle.
static long long idle_bytes(bool tls)
{
    enum { COUNT = 24, WARM = 8 };

    static end clients[COUNT], accepted[COUNT + 1];
    duo d;
    pool p;
    long long before = 0;
    if (tls) tls_duo(&d);
    else duo_init(&d);
    crowd_open(&d, &p, clients, accepted, 0);
    p.cap = COUNT + 1;
    for (int i = 0; i < COUNT; i++) {
        memset(&clients[i], 0, sizeof clients[i]);
        memset(&accepted[i + 1], 0, sizeof accepted[i + 1]);
        clients[i].seed = clients[i].out_seed = 200;
        clients[i].out_len = 40000;
        duo_dial(&d, &clients[i], &end_all);
        end_pump(&clients[i]);
        RUN_UNTIL(d.loop, clients[i].got == 40000);
        test_run_for(d.loop, 2);
        if (i == WARM) before = test_bytes();
    }
    long long bytes = test_bytes() - before;
    test_loop_destroy(&d.loop);
    return bytes / (2 * (COUNT - 1 - WARM));
}

TEST(tls_conn, an_idle_connection_owns_half_a_kilobyte_more_than_without)
{
    if (test_bytes() < 0) SKIP("the heap does not tell");
    contexts(no_tickets, "good.pem", no_tickets);
    long long plain = idle_bytes(false), tls = idle_bytes(true);
    printf("    %lld bytes, %lld without TLS\n", tls, plain);
    CHECK_BETWEEN(plain + 64, plain + 512, tls);
    contexts_end();
}

TEST(tls_conn, messages_are_passed_without_allocating)
{
    static char message[5000];
    duo d;
    if (test_in_memory()) SKIP("that network allocates");
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    d.b.echo = true;
    duo_open(&d, &end_all, &end_plain);
    long allocs = 0;
    long long bytes = 0;
    for (uint64_t i = 1; i <= 60; i++) {
        CHECK_OK(CALL(netio_conn_write(d.a.c, message, sizeof message)));
        RUN_UNTIL(d.loop, d.a.got == i * sizeof message);
        if (i != 10) continue;
        bytes = test_bytes();
        allocs = test_allocs();
    }
    CHECK_EQ(allocs, test_allocs());
    CHECK_EQ(bytes, test_bytes());
    duo_close(&d);
    contexts_end();
}

TEST(tls_conn, a_second_dial_is_resumed)
{
    contexts(NULL, "good.pem", NULL);
    for (int i = 0; i < 3; i++) {
        duo d;
        tls_duo(&d);
        d.b.echo = true;
        duo_open(&d, &end_all, &end_plain);
        CHECK_EQ(i > 0, info_of(d.a.c).resumed);
        CHECK_OK(CALL(netio_conn_write(d.a.c, "x", 1)));
        RUN_UNTIL(d.loop, d.a.got == 1);
        CHECK_OK(CALL(netio_conn_close(d.a.c)));
        RUN_UNTIL(d.loop, d.a.closed && d.b.closed);
        duo_close(&d);
    }
    contexts_end();
}

TEST(tls_conn, a_relay_joins_tls_and_plain)
{
    duo d, plain;
    contexts(NULL, "good.pem", NULL);
    tls_duo(&d);
    d.a.seed = d.a.out_seed = 95;
    d.a.out_len = 200000;
    d.a.then = 's';
    duo_open(&d, &end_all, &end_all);
    // On the same loop, from the accepted end to a plain echo server.
    netio_listener_opts lo;
    netio_dial_opts dl;
    netio_listener l;
    netio_addr addr;
    char text[NETIO_ADDR_TEXT];
    memset(&plain, 0, sizeof plain);
    memset(&lo, 0, sizeof lo);
    memset(&dl, 0, sizeof dl);
    plain.b.echo = true;
    lo.conn.user = &plain.b;
    dl.conn.user = &plain.a;
    CHECK_OK(CALL(netio_listener_open(&l, d.loop, test_loop_addr(), &end_plain, &lo)));
    CHECK_OK(netio_listener_addr(l, &addr));
    CHECK(netio_addr_format(&addr, text, sizeof text) > 0);
    CHECK_OK(CALL(netio_conn_dial(&plain.a.c, d.loop, text, &end_all, &dl)));
    RUN_UNTIL(d.loop, plain.a.opened && plain.b.opened);
    CHECK_OK(CALL(netio_conn_relay(d.b.c, plain.a.c)));
    end_pump(&d.a);
    RUN_UNTIL(d.loop, d.a.closed && d.b.closed && plain.a.closed && plain.b.closed);
    CHECK_ERR(0, d.a.err);
    CHECK_EQ(200000, d.a.got);
    CHECK_EQ(200000, plain.b.got);
    duo_close(&d);
    contexts_end();
}

// --- memory runs out ----------------------------------------------------------------------------

TEST(tls_conn, every_allocation_may_fail)
{
    contexts(NULL, "good.pem", NULL);
    for (long n = 1; n < 120; n++) {
        duo d;
        tls_duo(&d);
        d.dial.timeout_ms = 2000;
        d.listen.conn.handshake_timeout_ms = 2000;
        d.b.echo = true;
        d.listen.on_refused = on_refused;
        duo_start(&d, &end_all, &end_plain);
        memset(&gate, 0, sizeof gate);
        test_alloc_fail_at(n);
        for (int i = 0; i < 200 && !d.a.closed && d.a.got == 0; i++) {
            if (d.a.opened == 1 && d.a.out == 0)
                d.a.out = CALL(netio_conn_write(d.a.c, "x", 1)) == 0;
            netio_loop_run_once(d.loop, 1);
        }
        test_alloc_fail_at(0);
        if (d.a.closed && d.a.err == 0) CHECK(d.b.closed);
        test_loop_destroy(&d.loop);
        CHECK(!d.a.broken && !d.b.broken);
    }
    contexts_end();
}

TEST_MAIN("tls_conn", T(tls_conn, all_bytes_and_both_ends_pass),
          T(tls_conn, writes_may_come_before_the_handshake),
          T(tls_conn, small_writes_of_a_turn_leave_in_full_records),
          T(tls_conn, files_and_owned_bytes_are_encrypted_too),
          T(tls_conn, unread_and_pause_work_behind_it), T(tls_conn, frames_pass_as_without_it),
          T(tls_conn, shutdown_ends_one_direction_only),
          T(tls_conn, a_close_in_on_data_still_says_close_notify),
          T(tls_conn, an_end_without_close_notify_is_an_error),
          T(tls_conn, the_handler_can_ask_who_is_there),
          T(tls_conn, the_host_that_was_dialed_is_checked),
          T(tls_conn, each_bad_certificate_has_its_own_error_and_gets_no_byte),
          T(tls_conn, plain_text_is_refused_with_what_it_said),
          T(tls_conn, a_filter_without_a_context_lets_nobody_in),
          T(tls_conn, a_silent_client_is_refused_in_time),
          T(tls_conn, client_certificates_are_required_and_shown),
          T(tls_conn, a_plain_connection_can_be_upgraded),
          T(tls_conn, bytes_behind_the_upgrade_command_forbid_it),
          T(tls_conn, the_role_can_be_told),
          T(tls_conn, a_certificate_is_renewed_without_dropping_anyone),
          T(tls_conn, many_clients_at_once_are_all_served),
          T(tls_conn, a_turn_finishes_one_handshake_at_most),
          T(tls_conn, handshakes_that_are_given_up_hold_up_nobody),
          T(tls_conn, an_idle_connection_owns_half_a_kilobyte_more_than_without),
          T(tls_conn, messages_are_passed_without_allocating),
          T(tls_conn, a_second_dial_is_resumed), T(tls_conn, a_relay_joins_tls_and_plain),
          T(tls_conn, every_allocation_may_fail))
