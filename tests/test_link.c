// Links that come back, and pools of them, of examples/common: over the network in memory, whose
// virtual time makes pauses of minutes exact and free.
//
// There are up to three servers, "10.0.0.1:80" and on, which answer each line, and one client.
#include "test.h"

#include "../examples/common/link_pool.h"

enum { SERVERS = 3, LOG = 4096 };

typedef struct server {
    netio_loop *loop;
    netio_listener listener;
    char addr[32];
    bool up, slams, mute; // slams: closes whoever comes; mute: reads, and says nothing
    int accepted, open, open_most;
    int hellos; // "HELLO", which a client says when it is up
} server;

static server servers[SERVERS];
static netio_network *net;
static netio_loop *loop; // the client's
static const char *const addresses[] = {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"};

static uint64_t now_ms(void) { return netio_loop_now_ms(loop); }

static void run(int ms) { CHECK_OK(netio_network_run(net, ms)); }

// --- the servers --------------------------------------------------------------------------------

static server *server_of(netio_conn c) { return (server *)netio_conn_user(c); }

static void server_open(netio_conn c)
{
    server *s = server_of(c);
    s->accepted++;
    if (++s->open > s->open_most) s->open_most = s->open;
    if (s->slams) netio_conn_close(c);
}

static void server_frame(netio_conn c, const netio_frame *f)
{
    server *s = server_of(c);
    if (f->len == 5 && memcmp(f->data, "HELLO", 5) == 0) s->hellos++;
    else if (!s->mute) netio_conn_send(c, f->data, f->len);
}

static void server_close(netio_conn c, int err)
{
    (void)err;
    server_of(c)->open--;
}

static const netio_handler server_handler = {
    .on_open = server_open, .on_frame = server_frame, .on_close = server_close};

static void server_start(int i)
{
    netio_listener_opts o = {0};
    o.conn.user = &servers[i];
    o.conn.framing = netio_framing_line(0);
    CHECK_OK(netio_listener_open(&servers[i].listener, servers[i].loop, addresses[i],
                                 &server_handler, &o));
    servers[i].up = true;
}

static void end_one(void *user, netio_conn c)
{
    int *left = (int *)user;
    if (--*left >= 0) netio_conn_abort(c);
}

// So many of its connections end; of all of them it is as if it were killed.
static void server_cut(int i, int count) { netio_conn_each(servers[i].loop, end_one, &count); }

static void server_kill(int i)
{
    netio_listener_close(servers[i].listener);
    server_cut(i, 1000000);
    servers[i].up = false;
}

static int open_in_all(void)
{
    int open = 0;
    for (int i = 0; i < SERVERS; i++) open += servers[i].open;
    return open;
}

static void world(int up)
{
    static const char *const hosts[] = {"10.0.0.1", "10.0.0.2", "10.0.0.3"};
    netio_network_opts n = {0};
    netio_loop_opts o = {0};
    memset(servers, 0, sizeof servers);
    n.link.latency_ms = 1;
    CHECK_OK(netio_network_create(&net, &n));
    o.network = net;
    for (int i = 0; i < SERVERS; i++) {
        o.host = hosts[i];
        CHECK_OK(netio_loop_create(&servers[i].loop, &o));
        if (i < up) server_start(i);
    }
    o.host = "10.0.0.9";
    CHECK_OK(netio_loop_create(&loop, &o));
    run(1);
}

static void world_over(void)
{
    CHECK_OK(netio_loop_destroy(loop));
    for (int i = 0; i < SERVERS; i++) {
        CHECK_OK(netio_loop_destroy(servers[i].loop));
        CHECK_EQ(0, servers[i].open);
    }
    CHECK_OK(netio_network_destroy(net));
}

static void network_cut(const char *host, bool cut)
{
    netio_link l = {0};
    l.latency_ms = 1;
    l.cut = cut;
    CHECK_OK(netio_network_link(net, host, "10.0.0.9", &l));
}

// --- the client ---------------------------------------------------------------------------------

static struct {
    link_client *link;
    int ups, downs, fails, pings, frames, asked_to_move;
    int down_err, fail_err;
    uint64_t up_ms, down_ms, fail_ms;
    bool busy; // may not move
    char
        close_in; // the callback that closes the link: 'u'p, 'd'own, 'f'ail, 'p'ing, 'm'ove, 'r'ead
    bool closed;
} me;

static void maybe_close(link_client *l, char where)
{
    CHECK(!me.closed); // nothing is called after it
    if (me.close_in != where) return;
    me.closed = true;
    link_close(l);
}

static void on_up(link_client *l, netio_conn c)
{
    CHECK_EQ(me.ups, me.downs);
    CHECK(netio_conn_same(c, link_conn(l)) && link_is_up(l) && link_of(c) == l);
    me.ups++;
    me.up_ms = now_ms();
    CHECK_OK(netio_conn_send(c, "HELLO", 5));
    maybe_close(l, 'u');
}

static void on_down(link_client *l, int err)
{
    CHECK_EQ(me.ups, me.downs + 1);
    CHECK(!link_is_up(l) && !netio_conn_alive(link_conn(l)));
    me.downs++;
    me.down_err = err;
    me.down_ms = now_ms();
    maybe_close(l, 'd');
}

static void on_failed(link_client *l, int err)
{
    me.fails++;
    me.fail_err = err;
    me.fail_ms = now_ms();
    maybe_close(l, 'f');
}

static void on_ping(link_client *l, netio_conn c)
{
    me.pings++;
    CHECK_OK(netio_conn_send(c, "PING", 4));
    maybe_close(l, 'p');
}

static bool may_move(link_client *l)
{
    me.asked_to_move++;
    maybe_close(l, 'm');
    return !me.busy;
}

static void on_frame(netio_conn c, const netio_frame *f)
{
    CHECK(netio_conn_same(c, link_conn(link_of(c)))); // only over the one that is up
    me.frames += f->len != 4;
    maybe_close(link_of(c), 'r');
}

static const netio_handler conn_handler = {.on_frame = on_frame};
static const link_handler quiet_handler = {
    .on_up = on_up, .on_down = on_down, .on_failed = on_failed, .may_move = may_move};
static const link_handler full_handler = {.on_up = on_up,
                                          .on_down = on_down,
                                          .on_failed = on_failed,
                                          .on_ping = on_ping,
                                          .may_move = may_move};

static link_opts opts_for(size_t count)
{
    link_opts o = {0};
    memset(&me, 0, sizeof me);
    o.conn = &conn_handler;
    o.servers = addresses;
    o.server_count = count;
    o.dial.conn.framing = netio_framing_line(0);
    o.backoff.jitter_pct = -1;
    return o;
}

static void open_with(const link_handler *handler, const link_opts *o)
{
    CHECK_OK(link_open(&me.link, loop, handler, o));
}

static void say(const char *text)
{
    CHECK_OK(netio_conn_send(link_conn(me.link), text, strlen(text)));
}

static void over(void)
{
    if (!me.closed) link_close(me.link);
    me.closed = true;
    run(10000);
    CHECK_EQ(0, open_in_all());
    world_over();
}

//================================================================================================
// One server
//================================================================================================

TEST(link, comes_back_when_the_server_does)
{
    world(1);
    link_opts o = opts_for(1);
    open_with(&quiet_handler, &o);
    CHECK(!link_is_up(me.link));
    CHECK_ERR(NETIO_ESTALE, netio_conn_send(link_conn(me.link), "x", 1));
    run(100);
    for (int i = 1; i <= 5; i++) {
        CHECK_EQ(i, me.ups);
        CHECK_EQ(i, servers[0].hellos); // it says again what the server must know
        CHECK_EQ(i, servers[0].accepted);
        say("hello world");
        run(10000);
        CHECK_EQ(i, me.frames);
        server_kill(0);
        run(500);
        CHECK_EQ(i, me.downs);
        CHECK_ERR(NETIO_ECONNRESET, me.down_err);
        CHECK(!link_is_up(me.link));
        server_start(0);
        run(1000); // the first pause, as it was up for long
    }
    CHECK_EQ(1, servers[0].open_most); // never a second one
    CHECK_EQ(0, me.fails);
    over();
}

TEST(link, a_clean_end_is_a_loss_as_well)
{
    world(1);
    link_opts o = opts_for(1);
    servers[0].slams = true;
    open_with(&quiet_handler, &o);
    run(100);
    CHECK_EQ(1, me.downs);
    CHECK_ERR(0, me.down_err);
    over();
}

TEST(link, the_first_attempt_is_repeated_with_growing_pauses)
{
    world(0);
    link_opts o = opts_for(1);
    open_with(&quiet_handler, &o);
    uint64_t begin = now_ms();
    run(62500); // 1 + 2 + 4 + 8 + 16 + 30 s: refused at 0, 1, 3, 7, 15, 31 and 61 s
    server_start(0);
    run(28000);
    CHECK_EQ(0, me.ups);
    run(1000);
    CHECK_EQ(1, me.ups);
    CHECK_BETWEEN(91000, 91100, me.up_ms - begin);
    CHECK_EQ(0, me.downs + me.fails);
    over();
}

TEST(link, gives_up_once)
{
    world(0);
    link_opts o = opts_for(1);
    o.backoff.base_ms = 100;
    o.backoff.tries_max = 5;
    open_with(&quiet_handler, &o);
    uint64_t begin = now_ms();
    run(3600000);
    CHECK_EQ(1, me.fails);
    CHECK_ERR(NETIO_ECONNREFUSED, me.fail_err);
    CHECK_BETWEEN(100 + 200 + 400 + 800, 1600, me.fail_ms - begin);
    server_start(0);
    run(3600000);
    CHECK_EQ(0, servers[0].accepted);
    CHECK_EQ(1, me.fails);
    CHECK_EQ(0, me.ups + me.downs);
    over();
}

TEST(link, gives_up_after_a_later_loss_too)
{
    world(1);
    link_opts o = opts_for(1);
    o.backoff.base_ms = 100;
    o.backoff.tries_max = 3;
    open_with(&quiet_handler, &o);
    run(60000);
    server_kill(0);
    run(60000);
    CHECK_EQ(1, me.ups);
    CHECK_EQ(1, me.downs);
    CHECK_EQ(1, me.fails);
    CHECK_ERR(NETIO_ECONNREFUSED, me.fail_err);
    over();
}

TEST(link, an_attempt_takes_five_seconds_at_most)
{
    world(1);
    link_opts o = opts_for(1);
    network_cut("10.0.0.1", true);
    o.backoff.tries_max = 1;
    open_with(&quiet_handler, &o);
    uint64_t begin = now_ms();
    run(60000);
    CHECK_ERR(NETIO_ETIMEDOUT, me.fail_err);
    CHECK_BETWEEN(5000, 5100, me.fail_ms - begin);
    over();
}

TEST(link, a_server_that_slams_the_door_is_not_stormed)
{
    world(1);
    link_opts o = opts_for(1);
    servers[0].slams = true;
    o.backoff.tries_max = 10;
    open_with(&quiet_handler, &o);
    run(3600000);
    CHECK_EQ(10, servers[0].accepted);
    CHECK_EQ(10, me.ups);
    CHECK_EQ(10, me.downs);
    CHECK_EQ(1, me.fails);
    over();
}

TEST(link, pauses_start_anew_after_it_was_up_for_a_while)
{
    world(1);
    link_opts o = opts_for(1);
    o.stable_ms = 2000;
    o.backoff.tries_max = 3;
    open_with(&quiet_handler, &o);
    for (int i = 1; i <= 10; i++) {
        run(1100);
        CHECK_EQ(i, me.ups);
        run(2000);
        server_cut(0, 1);
    }
    run(1);
    uint64_t lost = me.down_ms;
    for (int i = 0; i < 2; i++) { // now it is lost at once each time: 1 s, 2 s, the end
        run((1 << i) * 1000 + 20);
        CHECK_EQ(11 + i, me.ups);
        server_cut(0, 1);
        run(5);
        if (i == 0) CHECK_BETWEEN(1000, 1100, me.up_ms - lost);
    }
    run(60000);
    CHECK_EQ(1, me.fails);
    over();
}

TEST(link, close_stops_it_whatever_it_does)
{
    for (int when = 0; when < 4; when++) {
        world(when == 1 ? 0 : 1);
        link_opts o = opts_for(1);
        open_with(&quiet_handler, &o);
        if (when > 0) run(1500); // 0: dialing; 1: in the second pause; else up
        if (when == 3) server_kill(0);
        if (when == 3) run(100); // in the pause after the loss
        me.closed = true;
        link_close(me.link);
        int before = servers[0].accepted;
        if (!servers[0].up) server_start(0);
        run(3600000);
        CHECK(servers[0].accepted <= before + (when == 0)); // what was under way may arrive
        CHECK_EQ(0, open_in_all());
        CHECK_EQ(when >= 2, me.ups);
        CHECK_EQ(when == 3, me.downs);
        over();
    }
}

TEST(link, what_was_written_before_close_arrives)
{
    world(1);
    link_opts o = opts_for(1);
    open_with(&quiet_handler, &o);
    run(100);
    say("HELLO");
    me.closed = true;
    link_close(me.link);
    run(100);
    CHECK_EQ(2, servers[0].hellos);
    over();
}

TEST(link, a_dropped_connection_is_replaced)
{
    world(1);
    link_opts o = opts_for(1);
    open_with(&quiet_handler, &o);
    link_drop(me.link); // nothing: it is not up
    run(6000);
    uint64_t id = netio_conn_id(link_conn(me.link));
    link_drop(me.link);
    CHECK(!link_is_up(me.link) && !link_ready(me.link));
    link_drop(me.link);
    run(1100);
    CHECK_EQ(2, me.ups);
    CHECK_ERR(NETIO_ECONNABORTED, me.down_err);
    CHECK(netio_conn_id(link_conn(me.link)) != id);
    CHECK_EQ(1, servers[0].open);
    over();
}

TEST(link, gives_up_with_the_error_of_the_last_attempt)
{
    world(1);
    link_opts o = opts_for(1);
    o.backoff.tries_max = 2;
    open_with(&quiet_handler, &o);
    run(6000);
    netio_listener_close(servers[0].listener);
    link_drop(me.link);
    run(60000);
    CHECK_ERR(NETIO_ECONNABORTED, me.down_err);
    CHECK_ERR(NETIO_ECONNREFUSED, me.fail_err);
    over();
}

TEST(link, a_peer_that_vanished_is_found_out)
{
    world(1);
    link_opts o = opts_for(1);
    o.ping_ms = 2000;
    o.ping_limit_ms = 1000;
    open_with(&full_handler, &o);
    run(60000);
    CHECK_EQ(1, me.ups);
    CHECK_EQ(0, me.downs);
    CHECK_BETWEEN(20, 30, me.pings); // one in 2 s, give or take the tick
    uint64_t cut = now_ms();
    network_cut("10.0.0.1", true);
    run(4000);
    CHECK_EQ(1, me.downs);
    CHECK_ERR(NETIO_ETIMEDOUT, me.down_err);
    CHECK_BETWEEN(1000, 3600, me.down_ms - cut);
    network_cut("10.0.0.1", false);
    run(30000);
    CHECK_EQ(2, me.ups);
    CHECK_EQ(1, me.downs);
    over();
}

TEST(link, other_traffic_is_as_good_as_an_answer)
{
    world(1);
    link_opts o = opts_for(1);
    o.ping_ms = 2000;
    open_with(&full_handler, &o);
    run(100);
    for (int i = 0; i < 100; i++) {
        say("still here");
        run(500);
    }
    CHECK_EQ(0, me.pings);
    CHECK_EQ(100, me.frames);
    servers[0].mute = true;
    run(3000);
    CHECK(me.pings >= 1);
    over();
}

TEST(link, may_be_closed_in_each_of_its_callbacks)
{
    static const char where[] = "udfpmr";
    for (int i = 0; where[i]; i++) {
        world(2);
        link_opts o = opts_for(2);
        o.backoff.tries_max = 1;
        o.ping_ms = 1000;
        o.probe_ms = 3000;
        if (where[i] != 'r') me.close_in = where[i];
        server_kill(0); // it goes to the second
        open_with(&full_handler, &o);
        run(1500);
        if (where[i] == 'm') server_start(0);
        if (where[i] == 'r') me.close_in = 'r'; // before an answer to a ping comes
        run(5000);
        if (where[i] == 'd' || where[i] == 'f') server_kill(1);
        run(60000);
        CHECK(me.closed);
        CHECK_EQ(0, open_in_all());
        over();
    }
}

TEST(link, ends_with_its_loop)
{
    world(2);
    link_opts o = opts_for(2);
    o.stable_ms = 3600000;
    o.backoff.tries_max = 1;
    open_with(&quiet_handler, &o);
    run(10000);
    uint64_t begin = netio_network_now_us(net);
    netio_loop_finish(loop, 60000);
    CHECK_OK(netio_loop_run(loop));
    CHECK_BETWEEN(0, 3000, (netio_network_now_us(net) - begin) / 1000); // nothing holds it up
    CHECK_EQ(1, me.downs);
    CHECK_EQ(0, me.fails); // that is no failure
    CHECK_EQ(1, servers[0].accepted);
    CHECK_EQ(0, servers[1].accepted);
    CHECK_EQ(0, open_in_all());
    over();
}

TEST(link, may_be_closed_just_before_its_loop)
{
    world(1);
    link_opts o = opts_for(1);
    open_with(&quiet_handler, &o);
    run(10000);
    me.closed = true;
    link_close(me.link); // its connection is still there: the sanitizers see if it is forgotten
    world_over();
}

TEST(link, refuses_senseless_options)
{
    world(1);
    link_client *l = NULL;
    for (int i = 0; i < 7; i++) {
        link_opts o = opts_for(1);
        if (i == 0) o.server_count = 0;
        if (i == 1) o.server_count = LINK_SERVERS_MAX + 1;
        if (i == 2) o.probe_ms = -2;
        if (i == 3) o.stable_ms = -1;
        if (i == 4) o.ping_limit_ms = -1;
        static const char *const nonsense[] = {"no port"};
        if (i == 5) o.servers = nonsense;
        if (i == 6) o.dial.timeout_ms = -2;
        int err = link_open(&l, loop, &full_handler, &o);
        if (i < 6) CHECK_ERR(NETIO_EINVAL, err);
        if (err == 0) link_close(l);
    }
    link_close(NULL);
    run(1000);
    world_over();
}

//================================================================================================
// Several servers
//================================================================================================

TEST(link, the_next_server_is_tried_at_once)
{
    world(3);
    link_opts o = opts_for(3);
    o.probe_ms = -1;
    server_kill(0);
    open_with(&quiet_handler, &o);
    run(50);
    CHECK_EQ(1, me.ups);
    CHECK_STR(addresses[1], link_server(me.link));
    run(10000);
    server_kill(1);
    run(50);
    CHECK_EQ(2, me.ups);
    CHECK_STR(addresses[2], link_server(me.link));
    server_start(0);
    run(3600000);
    CHECK_STR(addresses[2], link_server(me.link)); // without probes it stays
    server_kill(2);
    run(50);
    CHECK_STR(addresses[0], link_server(me.link)); // the best one first
    CHECK_EQ(3, me.ups);
    over();
}

TEST(link, the_primary_is_preferred_again_when_it_is_back)
{
    world(2);
    link_opts o = opts_for(2);
    o.probe_ms = 10000;
    open_with(&quiet_handler, &o);
    run(20000);
    CHECK_STR(addresses[0], link_server(me.link));
    server_kill(0);
    run(50);
    CHECK_STR(addresses[1], link_server(me.link));
    run(60000);
    CHECK_EQ(2, me.ups);
    CHECK_EQ(1, me.downs); // probes that fail disturb nothing
    say("over the backup");
    run(10);
    CHECK_EQ(1, me.frames);
    server_start(0);
    run(13000);
    CHECK_STR(addresses[0], link_server(me.link));
    CHECK_EQ(3, me.ups);
    CHECK_EQ(2, me.downs);
    CHECK_ERR(0, me.down_err); // it moved
    CHECK_EQ(1, servers[0].open);
    CHECK_EQ(0, servers[1].open);
    say("over the primary");
    run(10);
    CHECK_EQ(2, me.frames);
    int accepted = servers[0].accepted;
    run(3600000);
    CHECK_EQ(accepted, servers[0].accepted); // no more probes
    over();
}

TEST(link, a_primary_behind_a_dead_network_is_probed_without_harm)
{
    world(2);
    link_opts o = opts_for(2);
    o.probe_ms = 10000;
    network_cut("10.0.0.1", true);
    open_with(&quiet_handler, &o);
    run(5100);
    CHECK_STR(addresses[1], link_server(me.link));
    for (int i = 0; i < 60; i++) {
        say("works");
        run(1000);
        CHECK_EQ(i + 1, me.frames);
    }
    network_cut("10.0.0.1", false);
    run(25000);
    CHECK_STR(addresses[0], link_server(me.link));
    CHECK_EQ(2, me.ups);
    over();
}

TEST(link, a_probe_that_is_under_way_serves_after_a_loss)
{
    world(2);
    link_opts o = opts_for(2);
    netio_link slow = {0};
    slow.latency_ms = 1000;
    o.probe_ms = 1000;
    server_kill(0);
    open_with(&quiet_handler, &o);
    run(500);
    server_start(0);
    CHECK_OK(netio_network_link(net, "10.0.0.1", "10.0.0.9", &slow));
    run(1500); // it is being dialed
    server_kill(1);
    run(20000);
    CHECK_EQ(2, me.ups);
    CHECK_STR(addresses[0], link_server(me.link));
    CHECK_EQ(1, servers[0].accepted); // once
    over();
}

TEST(link, it_moves_when_nothing_is_under_way)
{
    world(2);
    link_opts o = opts_for(2);
    o.probe_ms = 1000;
    o.move_ms = 4000;
    o.stable_ms = 1000;
    server_kill(0);
    open_with(&quiet_handler, &o);
    run(100);
    me.busy = true;
    server_start(0);
    run(2000);
    CHECK(link_is_up(me.link) && !link_ready(me.link)); // finish, but begin nothing new
    CHECK_STR(addresses[1], link_server(me.link));
    say("the rest");
    run(10);
    CHECK_EQ(1, me.frames);
    me.busy = false;
    run(50);
    CHECK_STR(addresses[0], link_server(me.link));
    CHECK(link_ready(me.link));

    server_kill(0);
    run(50);
    server_start(0);
    me.busy = true; // for ever
    run(4000);
    CHECK_STR(addresses[1], link_server(me.link));
    run(3000);
    CHECK_STR(addresses[0], link_server(me.link));
    CHECK_EQ(4, me.ups);
    CHECK_EQ(1, open_in_all());
    over();
}

TEST(link, one_that_waits_to_take_over_does_so_after_a_loss)
{
    world(2);
    link_opts o = opts_for(2);
    o.probe_ms = 1000;
    o.move_ms = 600000;
    server_kill(0);
    open_with(&quiet_handler, &o);
    run(100);
    me.busy = true;
    server_start(0);
    run(3000);
    CHECK_EQ(1, servers[0].open);
    server_kill(1);
    run(10);
    CHECK_EQ(2, me.ups);
    CHECK_STR(addresses[0], link_server(me.link));
    CHECK_EQ(1, servers[0].accepted);
    over();
}

TEST(link, one_that_waits_to_take_over_may_be_lost_itself)
{
    world(2);
    link_opts o = opts_for(2);
    o.probe_ms = 1000;
    o.move_ms = 5000;
    server_kill(0);
    open_with(&quiet_handler, &o);
    run(100);
    me.busy = true;
    server_start(0);
    run(3000);
    server_kill(0); // which is not noticed while it waits unread; the move fails then
    run(60000);
    CHECK(link_is_up(me.link));
    CHECK_STR(addresses[1], link_server(me.link));
    CHECK_EQ(1, open_in_all());
    over();
}

TEST(link, all_down_means_pauses_and_all_are_tried_in_each_round)
{
    world(0);
    link_opts o = opts_for(3);
    o.backoff.tries_max = 4;
    open_with(&quiet_handler, &o);
    uint64_t begin = now_ms();
    run(3600000);
    CHECK_EQ(1, me.fails);
    CHECK_ERR(NETIO_ECONNREFUSED, me.fail_err);
    CHECK_BETWEEN(7000, 7200, me.fail_ms - begin); // 1 + 2 + 4 s: rounds, not servers, count
    over();
}

TEST(link, servers_that_slam_their_doors_are_not_stormed)
{
    world(3);
    link_opts o = opts_for(3);
    for (int i = 0; i < 3; i++) servers[i].slams = true;
    o.backoff.tries_max = 6;
    open_with(&quiet_handler, &o);
    run(3600000);
    CHECK_EQ(1, me.fails);
    for (int i = 0; i < 3; i++) CHECK_EQ(6, servers[i].accepted);
    over();
}

TEST(link, settles_on_the_best_server_whatever_happened)
{
    for (uint32_t seed = 1; seed <= 20; seed++) {
        uint32_t random = seed;
        bool cut[SERVERS] = {false, false, false};
        static const char *const hosts[] = {"10.0.0.1", "10.0.0.2", "10.0.0.3"};
        world(3);
        link_opts o = opts_for(3);
        o.probe_ms = 3000;
        o.ping_ms = 1000;
        o.ping_limit_ms = 1000;
        o.backoff.cap_ms = 5000;
        open_with(&full_handler, &o);
        for (int step = 0; step < 300; step++) {
            int i = (int)(test_random(&random) % SERVERS);
            uint32_t what = test_random(&random) % 8;
            if (what == 0) servers[i].slams = !servers[i].slams;
            else if (what == 1) network_cut(hosts[i], cut[i] = !cut[i]);
            else if (what == 2) me.busy = !me.busy;
            else if (what == 3) server_cut(i, 1);
            else if (servers[i].up) server_kill(i);
            else server_start(i);
            run((int)(test_random(&random) % 4000));
        }
        int ups = me.ups;
        me.busy = false;
        for (int i = 0; i < SERVERS; i++) {
            servers[i].slams = false;
            network_cut(hosts[i], false);
            if (!servers[i].up) server_start(i);
        }
        run(60000);
        CHECK(ups > 20);
        CHECK_EQ(0, me.fails);
        CHECK(link_ready(me.link));
        CHECK_STR(addresses[0], link_server(me.link));
        int frames = me.frames;
        say("all is well");
        run(10);
        CHECK_EQ(frames + 1, me.frames);
        CHECK_EQ(1, open_in_all());
        over();
    }
}

//================================================================================================
// Pools
//================================================================================================

enum { USERS = 32 };

typedef struct user {
    int told, err;
    uint64_t ms;
    int order; // in which they were told
    link_client *link;
    int rounds; // to go on for so long: use it 50 ms, give it back, ask again
} user;

static link_pool *pool;
static user users[USERS];
static int told, gone;

static void pool_up(link_client *l, netio_conn c)
{
    (void)l;
    me.ups++;
    CHECK_OK(netio_conn_send(c, "HELLO", 5));
}

static void pool_down(link_client *l, int err)
{
    (void)l;
    (void)err;
    me.downs++;
}

static void pool_failed(link_client *l, int err)
{
    (void)l;
    me.fails++;
    me.fail_err = err;
}

static void pool_ping(link_client *l, netio_conn c)
{
    (void)l;
    me.pings++;
    CHECK_OK(netio_conn_send(c, "PING", 4));
}

static void pool_frame(netio_conn c, const netio_frame *f)
{
    (void)c;
    (void)f;
    me.frames++;
}

static void pool_gone(link_client *l)
{
    CHECK(l != NULL);
    gone++;
}

static const netio_handler pool_conn = {.on_frame = pool_frame};
static const link_handler pool_handler = {
    .on_up = pool_up, .on_down = pool_down, .on_failed = pool_failed, .on_ping = pool_ping};

static link_pool_opts pool_opts(size_t max)
{
    link_pool_opts o = {0};
    o.link = opts_for(1);
    o.link.conn = &pool_conn;
    o.max = max;
    o.on_gone = pool_gone;
    memset(users, 0, sizeof users);
    told = gone = 0;
    return o;
}

static void pool_open(const link_pool_opts *o)
{
    CHECK_OK(link_pool_create(&pool, loop, &pool_handler, o));
}

static void got(void *arg, int err, link_client *l)
{
    user *u = (user *)arg;
    u->told++;
    u->err = err;
    u->ms = now_ms();
    u->order = ++told;
    u->link = l;
    CHECK((l != NULL) == (err == 0));
    if (!l) return;
    CHECK(link_ready(l));
    for (int i = 0; i < USERS; i++) CHECK(&users[i] == u || users[i].link != l); // nobody else's
}

static void ask(int who, int timeout_ms)
{
    users[who].told = 0;
    CHECK_OK(link_pool_acquire(pool, NULL, timeout_ms, got, &users[who]));
    CHECK_EQ(0, users[who].told); // not from inside
}

static void give(int who, bool broken)
{
    link_client *l = users[who].link;
    users[who].link = NULL;
    link_pool_release(pool, l, broken);
}

static void pool_over(void)
{
    link_pool_stats s = link_pool_get_stats(pool);
    int before = gone;
    link_pool_destroy(pool);
    CHECK_EQ((size_t)(gone - before), s.links);
    CHECK_EQ((uint64_t)gone, s.opened); // each link once
    run(10000);
    CHECK_EQ(0, open_in_all());
    world_over();
}

static void work(void *arg);

static void work_got(void *arg, int err, link_client *l)
{
    user *u = (user *)arg;
    got(arg, err, l);
    CHECK_OK(err);
    CHECK_OK(netio_timer_once(NULL, loop, 50, work, u));
}

static void work(void *arg)
{
    user *u = (user *)arg;
    give((int)(u - users), false);
    if (--u->rounds > 0) CHECK_OK(link_pool_acquire(pool, NULL, 60000, work_got, u));
}

TEST(link, ten_workers_share_five)
{
    world(1);
    link_pool_opts o = pool_opts(5);
    pool_open(&o);
    for (int i = 0; i < 10; i++) {
        users[i].rounds = 20;
        CHECK_OK(link_pool_acquire(pool, NULL, 60000, work_got, &users[i]));
    }
    run(5000);
    for (int i = 0; i < 10; i++) CHECK_EQ(0, users[i].rounds);
    CHECK_EQ(200, told);
    CHECK_EQ(5, servers[0].accepted);
    CHECK_EQ(5, servers[0].hellos);
    CHECK_EQ(200, link_pool_get_stats(pool).lent_total);
    pool_over();
}

TEST(link, a_pool_opens_no_more_than_it_needs)
{
    world(1);
    link_pool_opts o = pool_opts(5);
    pool_open(&o);
    run(10000);
    CHECK_EQ(0, servers[0].accepted);
    for (int i = 0; i < 20; i++) {
        ask(0, 1000);
        run(10);
        CHECK_OK(users[0].err);
        give(0, false);
        run(10);
    }
    CHECK_EQ(1, servers[0].accepted);
    pool_over();
}

TEST(link, the_one_that_came_back_last_is_lent)
{
    world(1);
    link_pool_opts o = pool_opts(3);
    link_client *order[3];
    pool_open(&o);
    for (int i = 0; i < 3; i++) ask(i, 1000);
    run(100);
    for (int i = 0; i < 3; i++) {
        order[i] = users[(i + 1) % 3].link;
        give((i + 1) % 3, false);
        run(10);
    }
    for (int i = 2; i >= 0; i--) {
        ask(i, 1000);
        run(10);
        CHECK(users[i].link == order[i]);
    }
    pool_over();
}

TEST(link, an_exhausted_pool_is_busy_or_times_out)
{
    world(1);
    link_pool_opts o = pool_opts(1);
    o.waiters_max = 3;
    pool_open(&o);
    CHECK_ERR(NETIO_EBUSY, link_pool_acquire(pool, NULL, 0, got, &users[9])); // none is up yet
    ask(0, 1000);
    run(10);
    CHECK(users[0].link != NULL);
    CHECK_ERR(NETIO_EBUSY, link_pool_acquire(pool, NULL, 0, got, &users[9]));
    uint64_t begin = now_ms();
    ask(1, 500);
    ask(2, 5000);
    ask(3, -1);
    CHECK_ERR(NETIO_EBUSY, link_pool_acquire(pool, NULL, 100, got, &users[9]));
    run(1000);
    CHECK_ERR(NETIO_ETIMEDOUT, users[1].err);
    CHECK_BETWEEN(500, 510, users[1].ms - begin);
    CHECK_EQ(0, users[2].told);

    begin = now_ms();
    give(0, false); // wakes the one that waits longest, at once
    run(1);
    CHECK_EQ(1, users[2].told);
    CHECK_OK(users[2].err);
    CHECK_BETWEEN(0, 1, users[2].ms - begin);
    CHECK_EQ(0, users[3].told);
    give(2, false);
    run(1);
    CHECK_OK(users[3].err);
    give(3, false);
    run(1);
    CHECK_OK(link_pool_acquire(pool, NULL, 0, got, &users[4]));
    run(1);
    CHECK_OK(users[4].err);
    CHECK_EQ(1, servers[0].accepted);
    CHECK_EQ(1, link_pool_get_stats(pool).timed_out);
    CHECK_EQ(0, users[9].told);
    pool_over();
}

TEST(link, a_broken_one_is_replaced_in_its_place)
{
    world(1);
    link_pool_opts o = pool_opts(1);
    o.link.backoff.base_ms = 100;
    o.link.stable_ms = 50;
    pool_open(&o);
    uint64_t last = 0;
    for (int i = 1; i <= 20; i++) {
        ask(0, 5000);
        run(300);
        CHECK_EQ(1, users[0].told);
        CHECK_OK(users[0].err);
        uint64_t id = netio_conn_id(link_conn(users[0].link));
        CHECK(id != last);
        last = id;
        give(0, true);
        CHECK_EQ(1, link_pool_get_stats(pool).links);
        CHECK_EQ(i, servers[0].accepted);
    }
    CHECK_EQ(1, servers[0].open_most);
    pool_over();
}

static void fill(int count)
{
    for (int i = 0; i < count; i++) ask(i, 60000);
    run(100);
    for (int i = 0; i < count; i++) CHECK_OK(users[i].err);
    for (int i = 0; i < count; i++) give(i, false);
    run(1);
}

TEST(link, those_that_the_server_closed_are_replaced)
{
    world(1);
    link_pool_opts o = pool_opts(5);
    pool_open(&o);
    fill(5);
    run(10000);
    server_cut(0, 2);
    run(10);
    CHECK_EQ(3, link_pool_get_stats(pool).up); // noticed at once: the loop reads idle ones, too
    run(2000);
    CHECK_EQ(5, link_pool_get_stats(pool).up);
    CHECK_EQ(7, servers[0].accepted);
    pool_over();
}

TEST(link, the_idle_are_pinged_and_the_dead_replaced)
{
    world(1);
    link_pool_opts o = pool_opts(3);
    o.link.ping_ms = 10000;
    o.link.ping_limit_ms = 2000;
    pool_open(&o);
    fill(3);
    run(60000);
    CHECK_BETWEEN(12, 18, me.pings);
    CHECK_EQ(3, servers[0].accepted);
    servers[0].mute = true;
    run(15000);
    CHECK_EQ(3, me.downs);
    servers[0].mute = false;
    run(60000);
    CHECK_EQ(3, link_pool_get_stats(pool).up);
    pool_over();
}

TEST(link, a_silent_one_must_answer_before_it_is_lent)
{
    for (int dead = 0; dead < 2; dead++) {
        world(1);
        link_pool_opts o = pool_opts(1);
        o.check_ms = dead ? 1000 : -1;
        o.link.ping_ms = 3600000; // none by itself
        o.link.ping_limit_ms = 2000;
        o.link.backoff.base_ms = 100;
        pool_open(&o);
        fill(1);
        CHECK_EQ(0, me.pings); // it was new
        run(10000);
        if (dead) servers[0].mute = true;
        uint64_t begin = now_ms();
        ask(0, 60000);
        run(1);
        CHECK_EQ(1, me.pings);
        CHECK_EQ(0, users[0].told);
        run(10);
        CHECK_EQ(!dead, users[0].told);
        if (!dead) {
            CHECK_BETWEEN(2, 5, users[0].ms - begin); // there and back
            give(0, false);
            ask(0, 60000);
            run(10);
            CHECK_EQ(2, me.pings); // each time
        } else {
            run(3000);
            CHECK_OK(users[0].err); // a new one
            CHECK_BETWEEN(2000, 3000, users[0].ms - begin);
            CHECK_EQ(2, servers[0].accepted);
        }
        CHECK(users[0].link != NULL);
        pool_over();
    }
}

TEST(link, a_pool_shrinks_while_the_server_is_down_and_recovers)
{
    world(1);
    link_pool_opts o = pool_opts(4);
    pool_open(&o);
    fill(4);
    CHECK_EQ(4, link_pool_get_stats(pool).up);
    run(10000);
    server_kill(0);
    run(100);
    CHECK_EQ(0, link_pool_get_stats(pool).up);
    uint64_t begin = now_ms();
    ask(0, 2000);
    run(3000);
    CHECK_ERR(NETIO_ETIMEDOUT, users[0].err);
    CHECK_BETWEEN(2000, 2010, users[0].ms - begin);
    server_start(0);
    ask(0, 60000);
    run(31000);
    CHECK_OK(users[0].err);
    CHECK_EQ(4, link_pool_get_stats(pool).up);
    CHECK_EQ(4, servers[0].open);
    CHECK_EQ(4, servers[0].open_most);
    pool_over();
}

TEST(link, a_lost_one_that_was_lent_comes_back)
{
    world(1);
    link_pool_opts o = pool_opts(1);
    pool_open(&o);
    ask(0, 1000);
    run(6000);
    link_client *l = users[0].link;
    server_cut(0, 1);
    run(10);
    CHECK_EQ(1, me.downs);
    CHECK(!link_is_up(l));
    give(0, true);
    ask(1, 60000);
    run(2000);
    CHECK_OK(users[1].err);
    CHECK_EQ(2, servers[0].accepted);
    pool_over();
}

TEST(link, when_all_give_up_those_who_wait_hear_why)
{
    world(0);
    link_pool_opts o = pool_opts(2);
    o.link.backoff.base_ms = 100;
    o.link.backoff.tries_max = 3;
    pool_open(&o);
    for (int jitter = 0; jitter < 2; jitter++) { // with which they do not give up together
        if (jitter) {
            link_pool_destroy(pool);
            o.link.backoff.jitter_pct = 50;
            o.link.backoff.seed = 1;
            me.fails = gone = 0;
            pool_open(&o);
        }
        for (int i = 0; i < 5; i++) {
            ask(i, 60000);
            if (i == 0) run(50);
        }
        run(2000);
        for (int i = 0; i < 5; i++) {
            CHECK_EQ(1, users[i].told);
            CHECK_ERR(NETIO_ECONNREFUSED, users[i].err);
        }
        CHECK_EQ(2, me.fails); // each link once
        CHECK_EQ(0, link_pool_get_stats(pool).links);
    }
    server_start(0);
    ask(0, 60000); // begins anew
    run(100);
    CHECK_OK(users[0].err);
    pool_over();
}

TEST(link, what_is_idle_for_long_is_closed)
{
    world(1);
    link_pool_opts o = pool_opts(4);
    o.idle_ms = 30000;
    pool_open(&o);
    fill(4);
    ask(0, 1000);
    run(20000);
    CHECK_EQ(4, servers[0].open);
    run(12000);
    CHECK_EQ(1, servers[0].open); // the one that is lent
    CHECK_EQ(3, gone);
    give(0, false);
    run(40000);
    CHECK_EQ(0, servers[0].open);
    ask(0, 1000);
    run(100);
    CHECK_OK(users[0].err);
    pool_over();
}

TEST(link, a_user_who_cancels_is_not_called)
{
    world(1);
    link_pool_opts o = pool_opts(1);
    uint64_t ticket[3];
    pool_open(&o);
    ask(0, 1000);
    run(10);
    for (int i = 0; i < 3; i++)
        CHECK_OK(link_pool_acquire(pool, &ticket[i], 10000, got, &users[1 + i]));
    CHECK_OK(link_pool_cancel(pool, ticket[1]));
    CHECK_ERR(NETIO_ESTALE, link_pool_cancel(pool, ticket[1]));
    give(0, false);
    run(10);
    CHECK_ERR(NETIO_ESTALE, link_pool_cancel(pool, ticket[0]));
    CHECK_OK(users[1].err);
    give(1, false);
    run(10);
    CHECK(users[3].link != NULL);
    run(20000);
    CHECK_EQ(0, users[2].told);
    CHECK_ERR(NETIO_ESTALE, link_pool_cancel(pool, 12345));
    pool_over();
}

static void got_and_destroy(void *arg, int err, link_client *l)
{
    got(arg, err, l);
    if (err == 0) link_pool_destroy(pool);
    else CHECK_ERR(NETIO_ECANCELED, err);
}

TEST(link, a_pool_may_be_destroyed_by_whom_it_serves)
{
    world(1);
    link_pool_opts o = pool_opts(3);
    pool_open(&o);
    for (int i = 0; i < 6; i++)
        CHECK_OK(link_pool_acquire(pool, NULL, 1000, got_and_destroy, &users[i]));
    run(60000);
    for (int i = 0; i < 6; i++) CHECK_EQ(1, users[i].told);
    CHECK_OK(users[0].err);
    CHECK_EQ(3, gone);
    CHECK_EQ(0, open_in_all());
    world_over();
}

TEST(link, a_destroyed_pool_closes_all)
{
    world(1);
    link_pool_opts o = pool_opts(3);
    pool_open(&o);
    for (int i = 0; i < 5; i++) ask(i, 60000);
    run(100);
    give(0, false); // number 3 gets it
    run(1);
    link_pool_destroy(pool);
    CHECK_ERR(NETIO_ECANCELED, users[4].err);
    CHECK_EQ(1, users[4].told);
    CHECK_EQ(3, gone);
    link_pool_destroy(NULL);
    run(1000);
    CHECK_EQ(0, open_in_all());
    world_over();
}

TEST(link, a_pool_moves_back_to_the_primary_between_its_users)
{
    world(2);
    link_pool_opts o = pool_opts(3);
    o.link.server_count = 2;
    o.link.probe_ms = 1000;
    o.link.move_ms = 600000;
    server_kill(0);
    pool_open(&o);
    fill(3);
    CHECK_EQ(3, servers[1].open);
    ask(0, 1000);
    run(10);
    server_start(0);
    run(5000);
    CHECK_EQ(1, servers[1].open); // the one that is lent
    CHECK(link_is_up(users[0].link));
    give(0, false);
    run(100);
    CHECK_EQ(0, servers[1].open);
    CHECK_EQ(3, servers[0].open);
    pool_over();
}

TEST(link, a_pool_refuses_senseless_options)
{
    world(1);
    link_pool *p = NULL;
    for (int i = 0; i < 3; i++) {
        link_pool_opts o = pool_opts(1);
        if (i == 0) o.max = 1025;
        if (i == 1) o.check_ms = -2;
        if (i == 2) o.idle_ms = -1;
        CHECK_ERR(NETIO_EINVAL, link_pool_create(&p, loop, &pool_handler, &o));
    }
    link_pool_opts o = pool_opts(1);
    o.link.server_count = 0; // which shows when the first is opened
    pool_open(&o);
    ask(0, 1000);
    run(10);
    CHECK_ERR(NETIO_EINVAL, users[0].err);
    pool_over();
}

// clang-format off
TEST_MAIN("link",
    T(link, comes_back_when_the_server_does),
    T(link, a_clean_end_is_a_loss_as_well),
    T(link, the_first_attempt_is_repeated_with_growing_pauses),
    T(link, gives_up_once),
    T(link, gives_up_after_a_later_loss_too),
    T(link, an_attempt_takes_five_seconds_at_most),
    T(link, a_server_that_slams_the_door_is_not_stormed),
    T(link, pauses_start_anew_after_it_was_up_for_a_while),
    T(link, close_stops_it_whatever_it_does),
    T(link, what_was_written_before_close_arrives),
    T(link, a_dropped_connection_is_replaced),
    T(link, gives_up_with_the_error_of_the_last_attempt),
    T(link, a_peer_that_vanished_is_found_out),
    T(link, other_traffic_is_as_good_as_an_answer),
    T(link, may_be_closed_in_each_of_its_callbacks),
    T(link, ends_with_its_loop),
    T(link, may_be_closed_just_before_its_loop),
    T(link, refuses_senseless_options),
    T(link, the_next_server_is_tried_at_once),
    T(link, the_primary_is_preferred_again_when_it_is_back),
    T(link, a_primary_behind_a_dead_network_is_probed_without_harm),
    T(link, a_probe_that_is_under_way_serves_after_a_loss),
    T(link, it_moves_when_nothing_is_under_way),
    T(link, one_that_waits_to_take_over_does_so_after_a_loss),
    T(link, one_that_waits_to_take_over_may_be_lost_itself),
    T(link, all_down_means_pauses_and_all_are_tried_in_each_round),
    T(link, servers_that_slam_their_doors_are_not_stormed),
    T(link, settles_on_the_best_server_whatever_happened),
    T(link, ten_workers_share_five),
    T(link, a_pool_opens_no_more_than_it_needs),
    T(link, the_one_that_came_back_last_is_lent),
    T(link, an_exhausted_pool_is_busy_or_times_out),
    T(link, a_broken_one_is_replaced_in_its_place),
    T(link, those_that_the_server_closed_are_replaced),
    T(link, the_idle_are_pinged_and_the_dead_replaced),
    T(link, a_silent_one_must_answer_before_it_is_lent),
    T(link, a_pool_shrinks_while_the_server_is_down_and_recovers),
    T(link, a_lost_one_that_was_lent_comes_back),
    T(link, when_all_give_up_those_who_wait_hear_why),
    T(link, what_is_idle_for_long_is_closed),
    T(link, a_user_who_cancels_is_not_called),
    T(link, a_pool_may_be_destroyed_by_whom_it_serves),
    T(link, a_destroyed_pool_closes_all),
    T(link, a_pool_moves_back_to_the_primary_between_its_users),
    T(link, a_pool_refuses_senseless_options))
// clang-format on
