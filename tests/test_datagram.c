// Datagrams over UDP: boundaries, senders, cut ones, connected ones, ICMP errors, queries.
#include "test.h"

//================================================================================================
// Helpers
//================================================================================================

static bool slow_machine(void)
{
    return test_under("wine") || test_under("qemu") || test_under("valgrind") ||
           test_under("sanitizer");
}

#ifdef __linux__
static const bool tells_true_size = true; // of a datagram that was cut
#else
static const bool tells_true_size = false;
#endif

static void addr_of(netio_addr *out, netio_socket s) { CHECK_OK(netio_local_addr(s, out)); }

static const char *text_of(netio_socket s)
{
    static char text[4][NETIO_ADDR_TEXT];
    static unsigned next;
    char *out = text[next++ % 4];
    netio_addr a;
    addr_of(&a, s);
    CHECK(netio_addr_format(&a, out, NETIO_ADDR_TEXT) > 0);
    return out;
}

static bool has_ipv6(void)
{
    netio_socket s;
    if (netio_bind(&s, "[::1]:0", NULL) < 0) return false;
    netio_close(&s);
    return true;
}

// An address on which nobody receives: a datagram to it is answered by ICMP.
static void closed_port(netio_addr *out)
{
    netio_socket s;
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    addr_of(out, s);
    CHECK_OK(netio_close(&s));
}

//================================================================================================
// Binding
//================================================================================================

TEST(datagram, an_unbound_socket_sends_and_hears_the_answer)
{
    netio_socket asker, answerer;
    netio_addr from, to;
    char buf[16];
    CHECK_OK(netio_bind(&asker, NULL, NULL));
    CHECK_OK(netio_bind(&answerer, "127.0.0.1:0", NULL));
    addr_of(&to, answerer);
    addr_of(&from, asker);
    CHECK_EQ(0, netio_addr_port(&from));
    CHECK_ERR(4, netio_sendto(asker, "ping", 4, &to, 1000));
    CHECK_ERR(4, netio_recvfrom(answerer, buf, sizeof buf, &from, 5000));
    CHECK(netio_addr_port(&from) != 0);
    CHECK_ERR(4, netio_sendto(answerer, "pong", 4, &from, 1000));
    CHECK_ERR(4, netio_recvfrom(asker, buf, sizeof buf, &from, 5000));
    CHECK_MEM("pong", buf, 4);
    CHECK(netio_addr_equal(&to, &from));
    CHECK_OK(netio_close(&asker));
    CHECK_OK(netio_close(&answerer));
}

TEST(datagram, a_bound_port_is_taken)
{
    netio_socket first, second = NETIO_INVALID_SOCKET;
    CHECK_OK(netio_bind(&first, "127.0.0.1:0", NULL));
    CHECK_ERR(NETIO_EADDRINUSE, netio_bind(&second, text_of(first), NULL));
    CHECK(second == NETIO_INVALID_SOCKET);
    CHECK_OK(netio_close(&first));
}

TEST(datagram, any_port_differs_and_the_type_is_datagram)
{
    static const char *const texts[] = {":0", "*:0", "127.0.0.1:0", "0.0.0.0:0"};
    netio_socket s[4];
    netio_addr a, b;
    int type;
    for (int i = 0; i < 4; i++) {
        CHECK_OK(netio_bind(&s[i], texts[i], NULL));
        CHECK_OK(netio_get_option(s[i], NETIO_OPT_TYPE, &type));
        CHECK_EQ(NETIO_DGRAM, type);
        addr_of(&a, s[i]);
        CHECK(netio_addr_port(&a) != 0);
    }
    addr_of(&a, s[2]);
    addr_of(&b, s[3]);
    CHECK(netio_addr_port(&a) != netio_addr_port(&b));
    for (int i = 0; i < 4; i++) CHECK_OK(netio_close(&s[i]));
}

TEST(datagram, sharing_a_group_port_is_asked_for_by_name)
{
    netio_socket first, second, third = NETIO_INVALID_SOCKET;
    netio_socket_opts opts = {0};
    opts.share_group = true;
    CHECK_OK(netio_bind(&first, "0.0.0.0:0", &opts));
    CHECK_OK(netio_bind(&second, text_of(first), &opts));
    CHECK_ERR(NETIO_EADDRINUSE, netio_bind(&third, text_of(first), NULL)); // did not ask
    CHECK_OK(netio_close(&first));
    CHECK_OK(netio_close(&second));
}

//================================================================================================
// Sending and receiving
//================================================================================================

TEST(datagram, a_hundred_sizes_are_echoed_whole)
{
    static const char *const texts[] = {"127.0.0.1:0", "[::1]:0"};
    for (int v = 0; v < (has_ipv6() ? 2 : 1); v++) {
        netio_socket client, server;
        netio_addr to, me, from;
        unsigned char out[1472], in[2000];
        CHECK_OK(netio_bind(&client, texts[v], NULL));
        CHECK_OK(netio_bind(&server, texts[v], NULL));
        addr_of(&to, server);
        addr_of(&me, client);
        for (int i = 0; i < 100; i++) {
            ptrdiff_t len = i == 99 ? 1472 : 1 + i * 15;
            test_fill(out, (size_t)len, (uint32_t)i);
            CHECK_ERR(len, netio_sendto(client, out, (size_t)len, &to, 1000));
            CHECK_ERR(len, netio_recvfrom(server, in, sizeof in, &from, 5000));
            CHECK(netio_addr_equal(&me, &from));
            CHECK_ERR(len, netio_sendto(server, in, (size_t)len, &from, 1000));
            memset(in, 0, sizeof in);
            CHECK_ERR(len, netio_recvfrom(client, in, sizeof in, &from, 5000));
            CHECK(netio_addr_equal(&to, &from));
            CHECK_MEM(out, in, (size_t)len);
        }
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
    }
}

TEST(datagram, boundaries_are_kept)
{
    netio_socket client, server;
    netio_addr to;
    char buf[64];
    CHECK_OK(netio_bind(&client, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&server, "127.0.0.1:0", NULL));
    addr_of(&to, server);
    CHECK_ERR(3, netio_sendto(client, "one", 3, &to, 1000));
    CHECK_ERR(5, netio_sendto(client, "three", 5, &to, 1000));
    CHECK_ERR(1, netio_sendto(client, "x", 1, &to, 1000));
    CHECK_ERR(3, netio_recvfrom(server, buf, sizeof buf, NULL, 5000)); // `from` may be NULL
    CHECK_ERR(5, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_MEM("three", buf, 5);
    CHECK_ERR(1, netio_peek(server, buf, sizeof buf, 5000));
    CHECK_ERR(1, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_ERR(NETIO_EAGAIN, netio_recv(server, buf, sizeof buf, 0));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(datagram, the_largest_goes_and_a_larger_is_refused)
{
    static unsigned char big[65600], in[65600];
    netio_socket client, server;
    netio_addr to;
    ptrdiff_t n;
    CHECK_OK(netio_bind(&client, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&server, "127.0.0.1:0", NULL));
    CHECK_OK(netio_set_option(client, NETIO_OPT_SNDBUF, 262144));
    CHECK_OK(netio_set_option(server, NETIO_OPT_RCVBUF, 262144));
    addr_of(&to, server);
    test_fill(big, sizeof big, 3);
    CHECK_ERR(NETIO_EMSGSIZE, netio_sendto(client, big, 65508, &to, 1000));
    CHECK_ERR(NETIO_EMSGSIZE, netio_sendto(client, big, sizeof big, &to, 1000));
    CHECK_ERR(NETIO_EAGAIN, netio_recv(server, in, sizeof in, 0)); // nothing of it went
    n = netio_sendto(client, big, 65507, &to, 1000);
    if (n == NETIO_EMSGSIZE) { // macOS: net.inet.udp.maxdgram
        n = 9000;
        CHECK_ERR(9000, netio_sendto(client, big, 9000, &to, 1000));
    } else {
        CHECK_ERR(65507, n);
    }
    CHECK_ERR(n, netio_recv(server, in, sizeof in, 5000));
    CHECK_MEM(big, in, (size_t)n);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(datagram, a_cut_one_gives_its_bytes_and_says_so)
{
    netio_socket client, server;
    netio_addr to, from;
    char out[100], in[32];
    ptrdiff_t n;
    CHECK_OK(netio_bind(&client, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&server, "127.0.0.1:0", NULL));
    addr_of(&to, server);
    test_fill(out, sizeof out, 8);
    memset(in, 'g', sizeof in);
    CHECK_ERR(100, netio_sendto(client, out, 100, &to, 1000));
    CHECK_ERR(100, netio_sendto(client, out, 100, &to, 1000));
    CHECK_ERR(11, netio_sendto(client, out, 11, &to, 1000));
    CHECK_ERR(10, netio_sendto(client, out, 10, &to, 1000));
    n = netio_recvfrom(server, in, 10, &from, 5000);
    CHECK(n == 100 || (n == 11 && !tells_true_size)); // else one more than fits
    CHECK_MEM(out, in, 10);
    for (size_t i = 10; i < sizeof in; i++) CHECK_EQ('g', in[i]);
    CHECK_EQ(NETIO_IPV4, netio_addr_family(&from)); // the sender is told with a cut one too
    memset(in, 'g', sizeof in);
    n = netio_recv(server, in, 10, 5000); // and its rest is gone, not next
    CHECK(n >= 10);
    CHECK_MEM(out, in, 10);
    for (size_t i = 10; i < sizeof in; i++) CHECK_EQ('g', in[i]);
    CHECK_ERR(11, netio_recvfrom(server, in, 10, NULL, 5000));
    CHECK_ERR(10, netio_recvfrom(server, in, 10, NULL, 5000)); // just fits: not cut
    CHECK_ERR(NETIO_EAGAIN, netio_recv(server, in, 10, 0));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(datagram, an_empty_one_is_a_message_and_no_end)
{
    netio_socket client, server;
    netio_addr to, from;
    char buf[8];
    CHECK_OK(netio_bind(&client, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&server, "127.0.0.1:0", NULL));
    addr_of(&to, server);
    CHECK_ERR(0, netio_sendto(client, NULL, 0, &to, 1000));
    CHECK_ERR(0, netio_sendto(client, "", 0, &to, 1000));
    CHECK_ERR(4, netio_sendto(client, "next", 4, &to, 1000));
    CHECK_EQ(NETIO_EV_READ, netio_wait(server, NETIO_EV_READ, 5000) & NETIO_EV_READ);
    CHECK_ERR(0, netio_recvfrom(server, buf, sizeof buf, &from, 5000));
    CHECK_EQ(NETIO_IPV4, netio_addr_family(&from));
    CHECK_ERR(0, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_ERR(4, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_MEM("next", buf, 4);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(datagram, an_empty_one_travels_on_a_connected_socket_too)
{
    netio_socket a, b;
    netio_socket_opts opts = {0};
    char buf[8];
    opts.type = NETIO_DGRAM;
    CHECK_OK(netio_bind(&b, "127.0.0.1:0", NULL));
    CHECK_OK(netio_connect(&a, text_of(b), &opts, 5000));
    CHECK_ERR(0, netio_send(a, "", 0, 1000));
    CHECK_ERR(4, netio_send(a, "next", 4, 1000));
    CHECK_ERR(0, netio_recv(b, buf, sizeof buf, 5000));
    CHECK_ERR(4, netio_recv(b, buf, sizeof buf, 5000));
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_close(&b));
}

TEST(datagram, pieces_go_as_one_or_not_at_all)
{
    enum { PIECES = 64 };
    netio_socket client, server;
    netio_socket_opts opts = {0};
    netio_buf bufs[PIECES + 1];
    netio_room rooms[3];
    char in[PIECES + 1], a[2], c[PIECES];
    opts.type = NETIO_DGRAM;
    CHECK_OK(netio_bind(&server, "127.0.0.1:0", NULL));
    CHECK_OK(netio_connect(&client, text_of(server), &opts, 5000));
    for (int i = 0; i <= PIECES; i++) {
        bufs[i].data = &"0123456789"[i % 10];
        bufs[i].len = 1;
    }
    CHECK_ERR(NETIO_EMSGSIZE, netio_sendv(client, bufs, PIECES + 1, 1000));
    CHECK_ERR(NETIO_EAGAIN, netio_recv(server, in, sizeof in, 0));
    CHECK_ERR(PIECES, netio_sendv(client, bufs, PIECES, 1000));
    CHECK_ERR(PIECES, netio_recv(server, in, sizeof in, 5000));
    for (int i = 0; i < PIECES; i++) CHECK_EQ('0' + i % 10, in[i]);
    CHECK_ERR(7, netio_sendv(client, bufs, 7, 1000));
    CHECK_ERR(3, netio_sendv(client, bufs, 3, 1000));
    memset(rooms, 0, sizeof rooms);
    rooms[0].data = a;
    rooms[0].cap = 2;
    rooms[2].data = c;
    rooms[2].cap = sizeof c;
    CHECK_ERR(7, netio_recvv(server, rooms, 3, 5000)); // one datagram a call
    CHECK_MEM("01", a, 2);
    CHECK_MEM("23456", c, 5);
    CHECK_ERR(3, netio_recvv(server, rooms, 3, 5000));
    CHECK_MEM("2", c, 1);
    bufs[1].data = NULL;
    bufs[1].len = 0; // an empty piece among others is no matter
    CHECK_ERR(2, netio_sendv(client, bufs, 3, 1000));
    CHECK_ERR(2, netio_recv(server, in, sizeof in, 5000));
    CHECK_MEM("02", in, 2);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(datagram, receiving_keeps_its_time)
{
    netio_socket s;
    netio_addr from;
    char buf[8];
    uint64_t start;
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_ERR(NETIO_EAGAIN, netio_recvfrom(s, buf, sizeof buf, &from, 0));
    start = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recvfrom(s, buf, sizeof buf, &from, 100));
    CHECK_BETWEEN(99, 2000, test_ms() - start);
    start = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(s, buf, sizeof buf, 50));
    CHECK_BETWEEN(49, 2000, test_ms() - start);
    addr_of(&from, s); // to itself: the socket is usable still
    CHECK_ERR(2, netio_sendto(s, "me", 2, &from, -1));
    CHECK_ERR(2, netio_recvfrom(s, buf, sizeof buf, NULL, -1));
    CHECK_OK(netio_close(&s));
}

TEST(datagram, bad_arguments)
{
    netio_socket s, client, server;
    netio_addr to, none, path;
    char buf[8];
    ptrdiff_t n;
    memset(&none, 0, sizeof none);
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    addr_of(&to, s);
    CHECK_ERR(NETIO_EINVAL, netio_sendto(s, NULL, 1, &to, 0));
    CHECK_ERR(NETIO_EINVAL, netio_recvfrom(s, NULL, 1, NULL, 0));
    for (int i = 0; i < 3; i++) { // not connected: to whom?
        n = i == 0 ? netio_send(s, "x", 1, 0) : netio_sendto(s, "x", 1, i == 1 ? &none : NULL, 0);
        CHECK(n == NETIO_ENOTCONN || n == NETIO_EINVAL);
    }
    memset(&path, 0, sizeof path);
    if (netio_addr_from_path(&path, "/nowhere", 8) == 0)
        CHECK(netio_sendto(s, "x", 1, &path, 0) < 0); // another family
    test_tcp_pair(&client, &server);
    CHECK_ERR(1, netio_send(server, "x", 1, 5000));
    CHECK_ERR(NETIO_EINVAL, netio_recvfrom(client, buf, sizeof buf, &to, 5000)); // a stream
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&s));
}

TEST(datagram, a_dual_stack_socket_speaks_both_and_unmaps)
{
    netio_socket dual, four, six;
    netio_addr to, from, mapped;
    char buf[8];
    unsigned char ip[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1};
    uint16_t port;
    if (!has_ipv6()) SKIP("no IPv6 here");
    CHECK_OK(netio_bind(&dual, ":0", NULL));
    CHECK_OK(netio_bind(&four, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&six, "[::1]:0", NULL));
    addr_of(&to, dual);
    port = netio_addr_port(&to);
    CHECK_OK(netio_addr_loopback(&to, NETIO_IPV4, port));
    CHECK_ERR(1, netio_sendto(four, "4", 1, &to, 1000));
    CHECK_ERR(1, netio_recvfrom(dual, buf, sizeof buf, &from, 5000));
    CHECK_EQ(NETIO_IPV4, netio_addr_family(&from));        // not ::ffff:127.0.0.1
    CHECK_ERR(1, netio_sendto(dual, "a", 1, &from, 1000)); // mapped again on the way out
    CHECK_ERR(1, netio_recvfrom(four, buf, sizeof buf, &from, 5000));
    CHECK(netio_addr_equal(&to, &from));
    CHECK_OK(netio_addr_loopback(&to, NETIO_IPV6, port));
    CHECK_ERR(1, netio_sendto(six, "6", 1, &to, 1000));
    CHECK_ERR(1, netio_recvfrom(dual, buf, sizeof buf, &from, 5000));
    CHECK_EQ(NETIO_IPV6, netio_addr_family(&from));
    CHECK_ERR(1, netio_sendto(dual, "b", 1, &from, 1000));
    CHECK_ERR(1, netio_recvfrom(six, buf, sizeof buf, &from, 5000));
    // A mapped address written as such goes the same way, from either kind of socket.
    CHECK_OK(netio_addr_from_ip(&mapped, ip, 16, port));
    CHECK_ERR(1, netio_sendto(four, "m", 1, &mapped, 1000));
    CHECK_ERR(1, netio_recvfrom(dual, buf, sizeof buf, NULL, 5000));
    CHECK_OK(netio_close(&dual));
    CHECK_OK(netio_close(&four));
    CHECK_OK(netio_close(&six));
}

TEST(datagram, a_v6_only_socket_does_not_hear_ipv4)
{
    netio_socket only, four;
    netio_socket_opts opts = {0};
    netio_addr to;
    char buf[8];
    if (!has_ipv6()) SKIP("no IPv6 here");
    opts.v6_only = true;
    CHECK_OK(netio_bind(&only, "[::]:0", &opts));
    CHECK_OK(netio_bind(&four, "127.0.0.1:0", NULL));
    addr_of(&to, only);
    CHECK_OK(netio_addr_loopback(&to, NETIO_IPV4, netio_addr_port(&to)));
    CHECK_ERR(1, netio_sendto(four, "4", 1, &to, 1000));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recvfrom(only, buf, sizeof buf, NULL, 100));
    CHECK_OK(netio_close(&only));
    CHECK_OK(netio_close(&four));
}

//================================================================================================
// Connected sockets, ICMP
//================================================================================================

TEST(datagram, a_connected_socket_hears_its_peer_alone)
{
    netio_socket client, peer, stranger;
    netio_socket_opts opts = {0};
    netio_addr me, from;
    char buf[16];
    opts.type = NETIO_DGRAM;
    CHECK_OK(netio_bind(&peer, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&stranger, "127.0.0.1:0", NULL));
    CHECK_OK(netio_connect(&client, text_of(peer), &opts, 5000));
    addr_of(&me, client);
    CHECK_ERR(5, netio_sendto(stranger, "false", 5, &me, 1000));
    CHECK_ERR(4, netio_sendto(peer, "true", 4, &me, 1000));
    CHECK_ERR(4, netio_recv(client, buf, sizeof buf, 5000));
    CHECK_MEM("true", buf, 4);
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recv(client, buf, sizeof buf, 50));
    CHECK_ERR(3, netio_send(client, "ask", 3, 1000));
    CHECK_ERR(3, netio_recvfrom(peer, buf, sizeof buf, &from, 5000));
    CHECK(netio_addr_equal(&me, &from));
    CHECK_OK(netio_peer_addr(client, &from));
    addr_of(&me, peer);
    CHECK(netio_addr_equal(&me, &from));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&peer));
    CHECK_OK(netio_close(&stranger));
}

TEST(datagram, a_connected_socket_is_told_that_nobody_listens)
{
    netio_socket client;
    netio_socket_opts opts = {0};
    netio_addr gone;
    char text[NETIO_ADDR_TEXT], buf[8];
    ptrdiff_t n;
    closed_port(&gone);
    CHECK(netio_addr_format(&gone, text, sizeof text) > 0);
    opts.type = NETIO_DGRAM;
    CHECK_OK(netio_connect(&client, text, &opts, 5000));
    CHECK_ERR(1, netio_send(client, "x", 1, 1000));
    n = netio_recv(client, buf, sizeof buf, 500);
    if (n == NETIO_ETIMEDOUT && test_under("wine")) {
        CHECK_OK(netio_close(&client));
        SKIP("Wine loses the ICMP error when select sees it first");
    }
    CHECK_ERR(NETIO_ECONNREFUSED, n);
    CHECK(netio_os_error() != 0);
    CHECK_ERR(NETIO_EAGAIN, netio_recv(client, buf, sizeof buf, 0)); // once for each
    CHECK_ERR(1, netio_send(client, "x", 1, 1000));
    netio_wait(client, NETIO_EV_READ, 1000);
    n = netio_send(client, "y", 1, 1000); // or on the next send
    CHECK(n == NETIO_ECONNREFUSED || n == 1);
    CHECK_OK(netio_close(&client));
}

TEST(datagram, an_unconnected_socket_never_hears_of_another_datagrams_fate)
{
    netio_socket s, other;
    netio_addr gone, me, from;
    char buf[8];
    closed_port(&gone);
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&other, "127.0.0.1:0", NULL));
    addr_of(&me, s);
    for (int i = 0; i < 5; i++) {
        CHECK_ERR(1, netio_sendto(s, "x", 1, &gone, 1000));
        CHECK_ERR(NETIO_EAGAIN, netio_recvfrom(s, buf, sizeof buf, &from, 0));
    }
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recvfrom(s, buf, sizeof buf, &from, 50));
    CHECK_ERR(NETIO_EAGAIN, netio_wait(s, NETIO_EV_READ, 0));
    CHECK_ERR(2, netio_sendto(other, "ok", 2, &me, 1000));
    CHECK_ERR(2, netio_recvfrom(s, buf, sizeof buf, &from, 5000));
    CHECK_ERR(2, netio_sendto(s, "ok", 2, &from, 1000));
    CHECK_ERR(2, netio_recvfrom(other, buf, sizeof buf, &from, 5000));
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&other));
}

TEST(datagram, an_unbound_socket_is_as_quiet)
{
    // netio_bind(NULL) leaves it unbound; the rule holds for the first send already.
    netio_socket s;
    netio_addr gone, from;
    char buf[8];
    closed_port(&gone);
    CHECK_OK(netio_bind(&s, NULL, NULL));
    CHECK_ERR(1, netio_sendto(s, "x", 1, &gone, 1000));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_recvfrom(s, buf, sizeof buf, &from, 50));
    CHECK_OK(netio_close(&s));
}

TEST(datagram, a_chosen_source_address_is_used)
{
    netio_socket client, server, probe;
    netio_socket_opts opts = {0};
    netio_addr from, want;
    char buf[8], text[NETIO_ADDR_TEXT];
    opts.type = NETIO_DGRAM;
    CHECK_OK(netio_bind(&server, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&probe, "127.0.0.1:0", NULL));
    addr_of(&want, probe);
    CHECK(netio_addr_format(&want, text, sizeof text) > 0);
    CHECK_OK(netio_close(&probe));
    opts.local = text;
    CHECK_OK(netio_connect(&client, text_of(server), &opts, 5000));
    CHECK_ERR(1, netio_send(client, "s", 1, 1000));
    CHECK_ERR(1, netio_recvfrom(server, buf, sizeof buf, &from, 5000));
    CHECK(netio_addr_equal(&want, &from));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

TEST(datagram, broadcast_needs_permission)
{
    // 127.255.255.255 is the loopback's own broadcast address on Linux; nothing leaves the machine.
    netio_socket s, r;
    netio_addr to, me;
    const unsigned char ip[4] = {127, 255, 255, 255};
    char buf[8];
    ptrdiff_t n;
    CHECK_OK(netio_bind(&r, "0.0.0.0:0", NULL));
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    addr_of(&me, r);
    CHECK_OK(netio_addr_from_ip(&to, ip, 4, netio_addr_port(&me)));
    n = netio_sendto(s, "b", 1, &to, 1000);
    if (n != NETIO_EACCES) {
        CHECK_OK(netio_close(&s));
        CHECK_OK(netio_close(&r));
        SKIP("this loopback has no broadcast address");
    }
    CHECK_OK(netio_set_option(s, NETIO_OPT_BROADCAST, 1));
    CHECK_ERR(1, netio_sendto(s, "b", 1, &to, 1000));
    CHECK_ERR(1, netio_recvfrom(r, buf, sizeof buf, NULL, 5000));
    CHECK_OK(netio_set_option(s, NETIO_OPT_BROADCAST, 0));
    CHECK_ERR(NETIO_EACCES, netio_sendto(s, "b", 1, &to, 1000));
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
}

TEST(datagram, a_flood_is_dropped_by_the_kernel_and_breaks_nothing)
{
    netio_socket client, server;
    netio_addr to;
    static char buf[1000];
    int rounds = slow_machine() ? 300 : 3000, got = 0;
    ptrdiff_t n;
    CHECK_OK(netio_bind(&client, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&server, "127.0.0.1:0", NULL));
    CHECK_OK(netio_set_option(server, NETIO_OPT_RCVBUF, 16384));
    addr_of(&to, server);
    for (int i = 0; i < rounds; i++)
        CHECK_ERR(sizeof buf, netio_sendto(client, buf, sizeof buf, &to, 1000));
    while ((n = netio_recv(server, buf, sizeof buf, 0)) == (ptrdiff_t)sizeof buf) got++;
    CHECK_ERR(NETIO_EAGAIN, n);
    CHECK_BETWEEN(1, rounds, got);
    CHECK_ERR(2, netio_sendto(client, "on", 2, &to, 1000));
    CHECK_ERR(2, netio_recv(server, buf, sizeof buf, 5000));
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
}

//================================================================================================
// Asking and answering
//================================================================================================

typedef struct answerer {
    netio_socket s;        // where questions arrive
    netio_socket stranger; // from where false answers come; invalid: none
    int ignore;            // questions to let pass
    int seen;
    bool noise; // answer with something that does not match first
} answerer;

static void answer(void *arg)
{
    answerer *a = (answerer *)arg;
    char buf[64];
    netio_addr from;
    while (netio_recvfrom(a->s, buf, sizeof buf, &from, 10000) > 0 && buf[0] != 'q') {
        a->seen++;
        if (a->stranger != NETIO_INVALID_SOCKET) netio_sendto(a->stranger, "false", 5, &from, 100);
        if (a->seen <= a->ignore) continue;
        if (a->noise) netio_sendto(a->s, "noise", 5, &from, 100);
        netio_sendto(a->s, "answer", 6, &from, 100);
    }
}

static void stop_answering(answerer *a, test_thread *thread)
{
    netio_addr to;
    netio_socket s;
    addr_of(&to, a->s);
    CHECK_OK(netio_bind(&s, NULL, NULL));
    CHECK_ERR(4, netio_sendto(s, "quit", 4, &to, 1000));
    test_thread_join(thread);
    CHECK_OK(netio_close(&s));
}

static bool is_answer(void *user, netio_buf got)
{
    int *calls = (int *)user;
    (*calls)++;
    return got.len == 6 && memcmp(got.data, "answer", 6) == 0;
}

TEST(datagram, a_query_asks_again_until_it_is_answered)
{
    answerer a;
    test_thread thread;
    netio_socket s;
    netio_addr to;
    char buf[64];
    netio_buf question = {"ask", 3};
    netio_room room;
    ptrdiff_t n;
    uint64_t from;
    int calls = 0;
    room.data = buf;
    room.cap = sizeof buf;
    memset(&a, 0, sizeof a);
    CHECK_OK(netio_bind(&a.s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&a.stranger, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    addr_of(&to, a.s);
    a.ignore = 2;
    a.noise = true;
    test_thread_start(&thread, answer, &a);
    from = test_ms();
    n = netio_query(s, &to, question, room, is_answer, &calls, 10, 40);
    from = test_ms() - from;
    stop_answering(&a, &thread);
    CHECK_ERR(6, n);
    CHECK_MEM("answer", buf, 6);
    CHECK_EQ(3, a.seen);
    CHECK_EQ(2, calls);             // the noise and the answer; the stranger's was not even shown
    CHECK_BETWEEN(119, 3000, from); // 40 and 80 ms passed unanswered
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&a.s));
    CHECK_OK(netio_close(&a.stranger));
}

TEST(datagram, a_query_without_match_takes_any_answer_of_the_asked)
{
    answerer a;
    test_thread thread;
    netio_socket s;
    netio_addr to;
    char buf[64];
    netio_buf question = {"ask", 3};
    netio_room room;
    ptrdiff_t n;
    room.data = buf;
    room.cap = sizeof buf;
    memset(&a, 0, sizeof a);
    CHECK_OK(netio_bind(&a.s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&a.stranger, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    addr_of(&to, a.s);
    test_thread_start(&thread, answer, &a);
    n = netio_query(s, &to, question, room, NULL, NULL, 5, 500);
    stop_answering(&a, &thread);
    CHECK_ERR(6, n);
    CHECK_MEM("answer", buf, 6);
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&a.s));
    CHECK_OK(netio_close(&a.stranger));
}

TEST(datagram, a_query_gives_up_after_exactly_so_many_sends)
{
    netio_socket s, mute;
    netio_addr to;
    char buf[64];
    netio_buf question = {"ask", 3};
    netio_room room;
    uint64_t from;
    int seen = 0;
    room.data = buf;
    room.cap = sizeof buf;
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&mute, "127.0.0.1:0", NULL));
    addr_of(&to, mute);
    from = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_query(s, &to, question, room, NULL, NULL, 3, 30));
    CHECK_BETWEEN(209, 3000, test_ms() - from); // 30 + 60 + 120
    while (netio_recv(mute, buf, sizeof buf, 0) == 3) seen++;
    CHECK_EQ(3, seen);
    CHECK_ERR(NETIO_EINVAL, netio_query(s, &to, question, room, NULL, NULL, 0, 30));
    CHECK_ERR(NETIO_EINVAL, netio_query(s, &to, question, room, NULL, NULL, -1, 30));
    CHECK_ERR(NETIO_EINVAL, netio_query(s, &to, question, room, NULL, NULL, 1, -30));
    room.data = NULL;
    CHECK_ERR(NETIO_EINVAL, netio_query(s, &to, question, room, NULL, NULL, 1, 30));
    CHECK_ERR(NETIO_EAGAIN, netio_recv(mute, buf, sizeof buf, 0)); // none of these was sent
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&mute));
}

TEST(datagram, a_query_survives_a_closed_port)
{
    netio_socket s;
    netio_addr gone;
    char buf[8];
    netio_buf question = {"ask", 3};
    netio_room room;
    room.data = buf;
    room.cap = sizeof buf;
    closed_port(&gone);
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_ERR(NETIO_ETIMEDOUT, netio_query(s, &gone, question, room, NULL, NULL, 2, 30));
    CHECK_OK(netio_close(&s));
}

//================================================================================================

// clang-format off
TEST_MAIN("datagram",
    T(datagram, an_unbound_socket_sends_and_hears_the_answer),
    T(datagram, a_bound_port_is_taken),
    T(datagram, any_port_differs_and_the_type_is_datagram),
    T(datagram, sharing_a_group_port_is_asked_for_by_name),
    T(datagram, a_hundred_sizes_are_echoed_whole),
    T(datagram, boundaries_are_kept),
    T(datagram, the_largest_goes_and_a_larger_is_refused),
    T(datagram, a_cut_one_gives_its_bytes_and_says_so),
    T(datagram, an_empty_one_is_a_message_and_no_end),
    T(datagram, an_empty_one_travels_on_a_connected_socket_too),
    T(datagram, pieces_go_as_one_or_not_at_all),
    T(datagram, receiving_keeps_its_time),
    T(datagram, bad_arguments),
    T(datagram, a_dual_stack_socket_speaks_both_and_unmaps),
    T(datagram, a_v6_only_socket_does_not_hear_ipv4),
    T(datagram, a_connected_socket_hears_its_peer_alone),
    T(datagram, a_connected_socket_is_told_that_nobody_listens),
    T(datagram, an_unconnected_socket_never_hears_of_another_datagrams_fate),
    T(datagram, an_unbound_socket_is_as_quiet),
    T(datagram, a_chosen_source_address_is_used),
    T(datagram, broadcast_needs_permission),
    T(datagram, a_flood_is_dropped_by_the_kernel_and_breaks_nothing),
    T(datagram, a_query_asks_again_until_it_is_answered),
    T(datagram, a_query_without_match_takes_any_answer_of_the_asked),
    T(datagram, a_query_gives_up_after_exactly_so_many_sends),
    T(datagram, a_query_survives_a_closed_port))
