// What the system tells of itself and of its connections: TCP states and figures, presets,
// interfaces; the small helpers for looking at bytes; sockets of other kinds, opened by number.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <netpacket/packet.h>
#include <sched.h>
#endif

#ifdef __linux__
static const bool on_linux = true;
#else
static const bool on_linux = false;
#endif
#ifdef _WIN32
static const bool on_windows = true;
#else
static const bool on_windows = false;
#endif

enum { CANNOT = 77 };

// In a child process: what fails is printed, and ends the child's part.
#define NEED(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            printf("    %s:%d: %s\n", __FILE__, __LINE__, #cond);                                  \
            fflush(stdout);                                                                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

#ifdef __linux__
static int in_child(int (*run)(void), bool own_network)
{
    int status = 0;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        if (own_network && unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
            _exit(CANNOT);
        _exit(run());
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

static int os_bind(netio_socket s, const netio_addr *a)
{
    size_t len;
    const void *raw = netio_addr_sockaddr(a, &len);
    return bind(s, (const struct sockaddr *)raw, (socklen_t)len);
}

static bool lo_up(void)
{
    struct ifreq lo;
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    bool ok;
    memset(&lo, 0, sizeof lo);
    memcpy(lo.ifr_name, "lo", 3);
    lo.ifr_flags = IFF_UP;
    ok = s >= 0 && ioctl(s, SIOCSIFFLAGS, &lo) == 0;
    if (s >= 0) close(s);
    return ok;
}
#endif

static void loopback(netio_addr *a, uint16_t port)
{
    CHECK_OK(netio_addr_loopback(a, NETIO_IPV4, port));
}

//================================================================================================
// TCP states
//================================================================================================

TEST(diag, all_eleven_states_have_their_names)
{
    static const char *const names[] = {"CLOSED",      "LISTEN",     "SYN_SENT",   "SYN_RECEIVED",
                                        "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT",
                                        "CLOSING",     "LAST_ACK",   "TIME_WAIT"};
    CHECK_EQ(0, NETIO_TCP_CLOSED);
    CHECK_EQ(10, NETIO_TCP_TIME_WAIT);
    for (int i = 0; i < 11; i++) CHECK_STR(names[i], netio_tcp_state_name(i));
    CHECK_STR("", netio_tcp_state_name(-1));
    CHECK_STR("", netio_tcp_state_name(11));
    CHECK_STR("", netio_tcp_state_name(INT32_MAX));
    CHECK_STR("", netio_tcp_state_name(INT32_MIN));
}

static const char *state(netio_socket s)
{
    netio_tcp_info info;
    CHECK_OK(netio_tcp_info_get(s, &info));
    return netio_tcp_state_name(info.state);
}

// A state that comes with a segment of the peer, of which this side gets no event.
static void state_becomes(netio_socket s, const char *want)
{
    for (int i = 0; i < 2000 && strcmp(state(s), want) != 0; i++) test_sleep_ms(1);
    CHECK_STR(want, state(s));
}

// SKIPs where the system does not tell.
static void need_tcp_info(void)
{
    netio_socket s;
    netio_tcp_info info;
    int err;
    if (test_under("qemu")) SKIP("qemu-user cuts it to four bytes");
    CHECK_OK(netio_open(&s, AF_INET, SOCK_STREAM, 0));
    err = netio_tcp_info_get(s, &info);
    CHECK_OK(netio_close(&s));
    if (err == NETIO_ENOTSUP && !on_linux) SKIP("this system does not tell, and netio says so");
    if (!on_windows) CHECK_OK(err); // Windows may want a connection
}

static char stuff[1 << 16];

static void send_until_full(netio_socket s)
{
    while (netio_send(s, stuff, sizeof stuff, 20) > 0) {}
}

TEST(diag, states_from_listen_to_the_end_of_a_connection)
{
    netio_socket listener, client, server, fresh;
    char text[NETIO_ADDR_TEXT], c;
    need_tcp_info();
    CHECK_OK(netio_open(&fresh, AF_INET, SOCK_STREAM, 0));
    CHECK_STR("CLOSED", state(fresh));
    CHECK_OK(netio_close(&fresh));
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_STR("LISTEN", state(listener));
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_STR("ESTABLISHED", state(client));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    state_becomes(server, "ESTABLISHED");
    CHECK_OK(netio_shutdown(client, NETIO_SHUT_WRITE));
    CHECK_ERR(NETIO_EOF, netio_recv(server, &c, 1, 5000));
    CHECK_STR("CLOSE_WAIT", state(server));
    state_becomes(client, "FIN_WAIT_2");
    CHECK_OK(netio_shutdown(server, NETIO_SHUT_WRITE));
    CHECK_ERR(NETIO_EOF, netio_recv(client, &c, 1, 5000));
    state_becomes(server, "CLOSED"); // the last acknowledgement came
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}

TEST(diag, a_connection_that_is_not_answered_is_syn_sent)
{
    netio_socket listener, clients[16];
    netio_socket_opts opts = {0};
    netio_addr a;
    int count = 0, unanswered = 0;
    need_tcp_info();
    if (!on_linux) SKIP("a full backlog answers nothing on Linux; others refuse");
    opts.backlog = 1;
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", &opts));
    CHECK_OK(netio_local_addr(listener, &a));
    for (; count < 16 && !unanswered; count++) {
        int err = netio_connect_start(&clients[count], &a, NULL);
        CHECK(err == 0 || err == NETIO_EINPROGRESS);
        unanswered = netio_connect_finish(clients[count], 50) == NETIO_ETIMEDOUT &&
                     strcmp(state(clients[count]), "SYN_SENT") == 0;
    }
    CHECK(unanswered);
    for (int i = 0; i < count; i++) CHECK_OK(netio_close(&clients[i]));
    CHECK_OK(netio_close(&listener));
}

TEST(diag, the_rarer_states_of_an_end_that_is_stuck)
{
    netio_socket a, b;
    char c;
    need_tcp_info();
    // The FIN waits behind data that the peer does not read.
    test_tcp_pair(&a, &b);
    send_until_full(a);
    CHECK_OK(netio_shutdown(a, NETIO_SHUT_WRITE));
    CHECK_STR("FIN_WAIT_1", state(a));
    CHECK_STR("ESTABLISHED", state(b));
    CHECK_OK(netio_shutdown(b, NETIO_SHUT_WRITE));
    CHECK_ERR(NETIO_EOF, netio_recv(a, &c, 1, 5000));
    CHECK_STR("CLOSING", state(a));
    state_becomes(b, "FIN_WAIT_2");
    CHECK_OK(netio_close(&b));
    CHECK_OK(netio_close(&a));
    // The same after the peer's.
    test_tcp_pair(&a, &b);
    CHECK_OK(netio_shutdown(b, NETIO_SHUT_WRITE));
    CHECK_ERR(NETIO_EOF, netio_recv(a, &c, 1, 5000));
    send_until_full(a);
    CHECK_OK(netio_shutdown(a, NETIO_SHUT_WRITE));
    CHECK_STR("LAST_ACK", state(a));
    CHECK_OK(netio_close(&b)); // with bytes unread: a reset
    state_becomes(a, "CLOSED");
    CHECK_OK(netio_close(&a));
}

//================================================================================================
// TCP figures
//================================================================================================

TEST(diag, figures_of_an_exchange)
{
    netio_socket a, b;
    netio_tcp_info ia, ib;
    bool quick = false;
    need_tcp_info();
    for (int i = 0; i < 5 && !quick; i++) { // on a busy machine not every exchange is quick
        char buf[1000];
        test_tcp_pair(&a, &b);
        for (int k = 0; k < 20; k++) {
            CHECK_OK(netio_send_all(a, stuff, 1000, NULL, 5000));
            CHECK_OK(netio_recv_exact(b, buf, 1000, NULL, 5000));
            CHECK_OK(netio_send_all(b, stuff, 100, NULL, 5000));
            CHECK_OK(netio_recv_exact(a, buf, 100, NULL, 5000));
        }
        memset(&ia, 0x55, sizeof ia);
        CHECK_OK(netio_tcp_info_get(a, &ia));
        CHECK_OK(netio_tcp_info_get(b, &ib));
        CHECK_EQ(NETIO_TCP_ESTABLISHED, ia.state);
        CHECK(ia.rtt_us > 0);
        quick = ia.rtt_us < 100000 && ib.rtt_us < 100000;
        CHECK_BETWEEN(500, 70000, ia.mss);
        CHECK_BETWEEN(1, 100000, ia.cwnd);
        CHECK_BETWEEN(0, 10, ia.retransmits);
        if (on_linux || on_windows) {
            // Linux counts what was acknowledged where it does not tell what was sent.
            CHECK_EQ(20000, ia.bytes_sent);
            CHECK_EQ(20000, ib.bytes_received);
            CHECK_EQ(2000, ib.bytes_sent);
            CHECK_EQ(2000, ia.bytes_received);
        }
        CHECK_OK(netio_close(&a));
        CHECK_OK(netio_close(&b));
    }
    CHECK(quick);
}

TEST(diag, what_is_on_the_way_is_counted)
{
    netio_socket a, b;
    netio_tcp_info info;
    int unsent = -1, readable = -1;
    need_tcp_info();
    if (!on_linux) SKIP("counted on Linux and Windows alone");
    test_tcp_pair(&a, &b);
    CHECK_OK(netio_get_option(a, NETIO_OPT_UNSENT, &unsent));
    CHECK_EQ(0, unsent);
    send_until_full(a);
    CHECK_OK(netio_tcp_info_get(a, &info));
    CHECK_OK(netio_get_option(a, NETIO_OPT_UNSENT, &unsent));
    CHECK(unsent > 0);
    CHECK_OK(netio_get_option(b, NETIO_OPT_READABLE, &readable));
    CHECK(readable > 0);
    CHECK_EQ(info.bytes_received, 0);
    // What has not arrived has not been acknowledged; all that was acknowledged has arrived.
    CHECK_OK(netio_tcp_info_get(b, &info));
    CHECK_EQ(info.bytes_received, readable);
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_close(&b));
}

TEST(diag, no_tcp_no_figures)
{
    netio_socket udp, pair[2], none = NETIO_INVALID_SOCKET;
    netio_tcp_info info, same;
    memset(&info, 0x55, sizeof info);
    same = info;
    CHECK_OK(netio_bind(&udp, "127.0.0.1:0", NULL));
    CHECK_ERR(NETIO_ENOTSUP, netio_tcp_info_get(udp, &info));
    CHECK_ERR(NETIO_EINVAL, netio_tcp_info_get(udp, NULL));
    CHECK_OK(netio_pair(pair, NETIO_DGRAM));
    CHECK_ERR(NETIO_ENOTSUP, netio_tcp_info_get(pair[0], &info));
    CHECK_ERR(NETIO_EBADF, netio_tcp_info_get(none, &info));
    CHECK_MEM(&same, &info, sizeof info); // untouched on error
    CHECK_OK(netio_close(&udp));
    CHECK_OK(netio_close(&pair[0]));
    CHECK_OK(netio_close(&pair[1]));
}

TEST(diag, bytes_that_wait_on_other_sockets)
{
    netio_socket s, r, pair[2], listener;
    netio_addr to;
    int value = -1;
    CHECK_OK(netio_bind(&r, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(r, &to));
    CHECK_OK(netio_get_option(r, NETIO_OPT_READABLE, &value));
    CHECK_EQ(0, value);
    CHECK_ERR(70, netio_sendto(s, stuff, 70, &to, 1000));
    CHECK_EQ(NETIO_EV_READ, netio_wait(r, NETIO_EV_READ, 5000));
    CHECK_OK(netio_get_option(r, NETIO_OPT_READABLE, &value));
    CHECK_BETWEEN(70, 70 + 64, value); // some count headers of their own
    if (on_linux) CHECK_EQ(70, value);
    CHECK_ERR(NETIO_ENOTSUP, netio_get_option(s, NETIO_OPT_UNSENT, &value)); // UDP keeps nothing
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&r));
    CHECK_OK(netio_pair(pair, NETIO_STREAM));
    CHECK_ERR(33, netio_send(pair[0], stuff, 33, 1000));
    CHECK_EQ(NETIO_EV_READ, netio_wait(pair[1], NETIO_EV_READ, 5000));
    CHECK_OK(netio_get_option(pair[1], NETIO_OPT_READABLE, &value));
    CHECK_EQ(33, value);
    CHECK_OK(netio_close(&pair[0]));
    CHECK_OK(netio_close(&pair[1]));
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", NULL));
    value = -5;
    if (netio_get_option(listener, NETIO_OPT_READABLE, &value) < 0) CHECK_EQ(-5, value);
    CHECK_OK(netio_close(&listener));
}

TEST(diag, a_listeners_congestion_control_is_inherited)
{
    netio_setting reno = {NETIO_OPT_CONGESTION, 0, "reno"};
    netio_socket_opts opts = {0};
    netio_socket listener, client, server;
    netio_addr a;
    char text[NETIO_ADDR_TEXT], name[32];
    if (!netio_option_supported(NETIO_OPT_CONGESTION)) SKIP("not on this system");
    if (test_under("qemu")) SKIP("qemu-user does not translate options of text");
    opts.settings = &reno;
    opts.setting_count = 1;
    CHECK_OK(netio_listen(&listener, "127.0.0.1:0", &opts));
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK(netio_addr_format(&a, text, sizeof text) > 0);
    CHECK_OK(netio_connect(&client, text, NULL, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    CHECK_ERR(4, netio_get_option_text(server, NETIO_OPT_CONGESTION, name, sizeof name));
    CHECK_STR("reno", name);
    reno.text = "nonsense";
    CHECK_OK(netio_close(&client));
    CHECK_ERR(NETIO_ENOENT, netio_connect(&client, text, &opts, 5000));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}

//================================================================================================
// Presets
//================================================================================================

// clang-format off
static const struct { int preset, count; int settings[6][2]; } presets[] = {
    {NETIO_PRESET_LATENCY, 3, {{NETIO_OPT_NODELAY, 1}, {NETIO_OPT_QUICKACK, 1},
                               {NETIO_OPT_TOS, 0x10}}},
    {NETIO_PRESET_BULK, 2, {{NETIO_OPT_SNDBUF, 1 << 20}, {NETIO_OPT_RCVBUF, 1 << 20}}},
    {NETIO_PRESET_SERVER, 6, {{NETIO_OPT_KEEPALIVE, 1}, {NETIO_OPT_KEEPIDLE, 60},
                              {NETIO_OPT_KEEPINTVL, 10}, {NETIO_OPT_KEEPCNT, 5},
                              {NETIO_OPT_USER_TIMEOUT, 30000}, {NETIO_OPT_NODELAY, 1}}},
    {NETIO_PRESET_BATTERY, 5, {{NETIO_OPT_KEEPALIVE, 1}, {NETIO_OPT_KEEPIDLE, 900},
                               {NETIO_OPT_KEEPINTVL, 60}, {NETIO_OPT_KEEPCNT, 3},
                               {NETIO_OPT_NODELAY, 0}}},
};
// clang-format on

static int preset_value(int i, int option) // -1: not in it
{
    for (int k = 0; k < presets[i].count; k++)
        if (presets[i].settings[k][0] == option) return presets[i].settings[k][1];
    return -1;
}

TEST(diag, presets_say_what_the_manual_says)
{
    for (int i = 0; i < 4; i++) {
        const netio_setting *list = NULL;
        size_t count = netio_preset(presets[i].preset, &list);
        CHECK_EQ(presets[i].count, count);
        CHECK_EQ(count, netio_preset(presets[i].preset, NULL));
        for (size_t k = 0; k < count; k++) {
            CHECK_EQ(preset_value(i, list[k].option), list[k].value);
            CHECK(list[k].text == NULL);
            for (size_t n = 0; n < k; n++) CHECK(list[n].option != list[k].option);
        }
    }
    for (int i = -2; i < 9; i++) {
        const netio_setting *list = &(netio_setting){0};
        if (i >= NETIO_PRESET_LATENCY && i <= NETIO_PRESET_BATTERY) continue;
        CHECK_EQ(0, netio_preset(i, &list));
        CHECK(list == NULL);
    }
}

enum { LAST_SETTABLE = NETIO_OPT_RECV_SEGMENTS };

static void snapshot(netio_socket s, int values[LAST_SETTABLE + 1])
{
    for (int option = 1; option <= LAST_SETTABLE; option++)
        if (netio_get_option(s, option, &values[option]) < 0) values[option] = -12345;
}

// What the system makes of a buffer size is what it makes of it when asked by number.
static int buffer_size(int option, int value)
{
    netio_socket a, b;
    int name = option == NETIO_OPT_SNDBUF ? SO_SNDBUF : SO_RCVBUF, got = 0;
    test_tcp_pair(&a, &b);
    CHECK_OK(netio_set_option_raw(a, SOL_SOCKET, name, &value, sizeof value));
    CHECK_OK(netio_get_option(a, option, &got));
    CHECK_OK(netio_close(&a));
    CHECK_OK(netio_close(&b));
    return got;
}

TEST(diag, presets_set_what_they_say_and_nothing_else)
{
    static int before[LAST_SETTABLE + 1], after[LAST_SETTABLE + 1];
    if (test_under("qemu")) SKIP("qemu-user translates some options one way only");
    for (int i = 0; i < 4; i++) {
        const netio_setting *list;
        netio_socket a, b;
        uint32_t skipped = 0xFFFFFFFFu;
        size_t count = netio_preset(presets[i].preset, &list);
        test_tcp_pair(&a, &b);
        snapshot(a, before);
        CHECK_OK(netio_set_options(a, list, count, &skipped));
        snapshot(a, after);
        for (int option = 1; option <= LAST_SETTABLE; option++) {
            int want = preset_value(i, option);
            if (want < 0) {
                if (before[option] != after[option])
                    test_fail(__FILE__, __LINE__, "preset %d changed %s", i + 1,
                              netio_option_name(option));
                continue;
            }
            for (size_t k = 0; k < count; k++) {
                bool lacks = !netio_option_supported(option);
                if (list[k].option == option) CHECK_EQ(lacks, skipped >> k & 1);
            }
            if (!netio_option_supported(option)) continue;
            if (option == NETIO_OPT_SNDBUF || option == NETIO_OPT_RCVBUF)
                want = buffer_size(option, want);
            if (want != after[option])
                test_fail(__FILE__, __LINE__, "preset %d: %s is %d, not %d", i + 1,
                          netio_option_name(option), after[option], want);
        }
        CHECK_EQ(0, skipped >> count);
        if (on_linux) CHECK_EQ(0, skipped);
        CHECK_OK(netio_close(&a));
        CHECK_OK(netio_close(&b));
    }
}

TEST(diag, presets_go_with_the_making_of_sockets)
{
    if (test_under("qemu")) SKIP("qemu-user does not have all the options");
    for (int i = 0; i < 4; i++) {
        netio_socket_opts opts = {0};
        netio_socket listener, client, server;
        netio_addr a;
        char text[NETIO_ADDR_TEXT];
        int value = -1, err;
        opts.setting_count = netio_preset(presets[i].preset, &opts.settings);
        err = netio_listen(&listener, "127.0.0.1:0", &opts);
        if (err == NETIO_ENOTSUP && !on_linux) continue; // said, not passed over
        CHECK_OK(err);
        CHECK_OK(netio_local_addr(listener, &a));
        CHECK(netio_addr_format(&a, text, sizeof text) > 0);
        CHECK_OK(netio_connect(&client, text, &opts, 5000));
        CHECK_OK(netio_accept(&server, listener, NULL, 5000));
        if (preset_value(i, NETIO_OPT_NODELAY) >= 0) {
            CHECK_OK(netio_get_option(client, NETIO_OPT_NODELAY, &value));
            CHECK_EQ(preset_value(i, NETIO_OPT_NODELAY), value);
        }
        CHECK_OK(netio_close(&listener));
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&server));
    }
}

TEST(diag, settings_are_applied_in_order_and_what_lacks_is_skipped)
{
    netio_setting list[40];
    netio_socket udp, none = NETIO_INVALID_SOCKET;
    uint32_t skipped = 99;
    int value = -1;
    memset(list, 0, sizeof list);
    CHECK_OK(netio_bind(&udp, "127.0.0.1:0", NULL));
    // NODELAY is nothing that UDP has.
    for (int i = 0; i < 40; i++) {
        list[i].option = i % 2 ? NETIO_OPT_NODELAY : NETIO_OPT_TTL;
        list[i].value = 1 + (i % 2 ? 0 : i);
    }
    CHECK_OK(netio_set_options(udp, list, 40, &skipped));
    CHECK_EQ(0xAAAAAAAAu, skipped); // of the first 32
    CHECK_OK(netio_get_option(udp, NETIO_OPT_TTL, &value));
    CHECK_EQ(39, value); // the last one counts
    CHECK_OK(netio_set_options(udp, list, 3, NULL));
    CHECK_OK(netio_get_option(udp, NETIO_OPT_TTL, &value));
    CHECK_EQ(3, value);
    CHECK_OK(netio_set_options(udp, list, 1, &skipped));
    CHECK_EQ(0, skipped);
    // Another error ends it where it is.
    list[2].value = 0;
    list[4].value = 77;
    CHECK_ERR(NETIO_EINVAL, netio_set_options(udp, list, 5, &skipped));
    CHECK_OK(netio_get_option(udp, NETIO_OPT_TTL, &value));
    CHECK_EQ(1, value);
    list[0].option = 9999;
    CHECK_ERR(NETIO_EINVAL, netio_set_options(udp, list, 5, &skipped));
    list[0].option = NETIO_OPT_TTL;
    CHECK_OK(netio_set_options(udp, NULL, 0, &skipped));
    CHECK_EQ(0, skipped);
    CHECK_ERR(NETIO_EINVAL, netio_set_options(udp, NULL, 1, &skipped));
    CHECK_ERR(NETIO_EBADF, netio_set_options(none, list, 1, &skipped));
    CHECK_ERR(NETIO_EBADF, netio_set_options(none, list, 1, NULL));
    // Text among numbers.
    list[0].option = NETIO_OPT_CONGESTION;
    list[0].text = "reno";
    list[1].option = NETIO_OPT_TTL;
    list[1].value = 5;
    CHECK_OK(netio_set_options(udp, list, 2, &skipped));
    CHECK_EQ(1, skipped);
    CHECK_OK(netio_get_option(udp, NETIO_OPT_TTL, &value));
    CHECK_EQ(5, value);
    CHECK_OK(netio_close(&udp));
}

//================================================================================================
// Interfaces
//================================================================================================

static netio_interface interfaces[256];

static const netio_interface *find_interface(ptrdiff_t count, const char *host)
{
    for (ptrdiff_t i = 0; i < count && i < 256; i++) {
        char text[NETIO_ADDR_TEXT];
        CHECK(netio_addr_format_host(&interfaces[i].addr, text, sizeof text) > 0);
        if (strcmp(text, host) == 0) return &interfaces[i];
    }
    return NULL;
}

TEST(diag, the_loopback_interface_is_among_them)
{
    ptrdiff_t count = netio_interfaces(interfaces, 256);
    const netio_interface *lo;
    CHECK_BETWEEN(1, 256, count);
    lo = find_interface(count, "127.0.0.1");
    CHECK(lo != NULL);
    CHECK(lo->flags & NETIO_IF_UP);
    CHECK(lo->flags & NETIO_IF_LOOPBACK);
    CHECK(!(lo->flags & NETIO_IF_BROADCAST));
    CHECK_EQ(0, lo->broadcast.len);
    CHECK_EQ(8, lo->prefix_bits);
    CHECK_EQ(0, netio_addr_port(&lo->addr));
    CHECK(lo->index != 0);
    CHECK(lo->name[0] != 0);
    CHECK_EQ(lo->index, netio_interface_index("127.0.0.1"));
    CHECK_EQ(lo->index, netio_interface_index(lo->name));
    for (ptrdiff_t i = 0; i < count; i++) {
        int family = netio_addr_family(&interfaces[i].addr);
        CHECK(family == NETIO_IPV4 || family == NETIO_IPV6);
        CHECK(interfaces[i].index != 0);
        CHECK_BETWEEN(0, family == NETIO_IPV4 ? 32 : 128, interfaces[i].prefix_bits);
        CHECK(memchr(interfaces[i].name, 0, sizeof interfaces[i].name) != NULL);
        if (interfaces[i].broadcast.len) CHECK_EQ(NETIO_IPV4, family);
    }
}

TEST(diag, their_number_is_told_even_if_they_do_not_fit)
{
    static netio_interface one[2];
    ptrdiff_t count = netio_interfaces(NULL, 0);
    CHECK(count >= 1);
    memset(one, 0x55, sizeof one);
    CHECK_EQ(count, netio_interfaces(one, 1));
    CHECK(one[0].index != 0x55555555u);
    CHECK_EQ(0x55555555u, one[1].index);
    CHECK_ERR(NETIO_EINVAL, netio_interfaces(NULL, 1));
}

#ifndef _WIN32
TEST(diag, they_are_those_of_getifaddrs)
{
    struct ifaddrs *list, *i;
    ptrdiff_t count = netio_interfaces(interfaces, 256), at = 0;
    CHECK_EQ(0, getifaddrs(&list));
    for (i = list; i; i = i->ifa_next) {
        const netio_interface *have = &interfaces[at];
        netio_addr a;
        uint8_t bits = 0;
        int family = i->ifa_addr ? i->ifa_addr->sa_family : 0;
        size_t len = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
        netio_buf mask;
        if (family != AF_INET && family != AF_INET6) continue;
        CHECK(at < count);
        CHECK_OK(netio_addr_from_sockaddr(&a, i->ifa_addr, len));
        CHECK(netio_addr_equal(&a, &have->addr));
        CHECK_EQ(netio_addr_scope(&a), netio_addr_scope(&have->addr));
        CHECK_STR(i->ifa_name, have->name);
        CHECK_EQ(if_nametoindex(i->ifa_name), have->index);
        CHECK_EQ(!!(i->ifa_flags & IFF_UP), !!(have->flags & NETIO_IF_UP));
        CHECK_EQ(!!(i->ifa_flags & IFF_LOOPBACK), !!(have->flags & NETIO_IF_LOOPBACK));
        CHECK_EQ(!!(i->ifa_flags & IFF_BROADCAST), !!(have->flags & NETIO_IF_BROADCAST));
        CHECK_EQ(!!(i->ifa_flags & IFF_MULTICAST), !!(have->flags & NETIO_IF_MULTICAST));
        CHECK_OK(netio_addr_from_sockaddr(&a, i->ifa_netmask, len));
        mask = netio_addr_ip(&a);
        for (size_t k = 0; k < mask.len * 8; k++)
            if (((const uint8_t *)mask.data)[k / 8] & 0x80 >> k % 8) bits++;
        CHECK_EQ(bits, have->prefix_bits);
        if ((i->ifa_flags & IFF_BROADCAST) && family == AF_INET && i->ifa_broadaddr) {
            CHECK_OK(netio_addr_from_sockaddr(&a, i->ifa_broadaddr, len));
            CHECK(netio_addr_equal(&a, &have->broadcast));
        } else {
            CHECK_EQ(0, have->broadcast.len);
        }
        at++;
    }
    CHECK_EQ(count, at);
    freeifaddrs(list);
}

// What `ip -j addr` prints about one interface, as far as the next one begins.
static bool ip_says(const char *json, const netio_interface *i)
{
    char want[160], host[NETIO_ADDR_TEXT];
    const char *from, *to, *found;
    snprintf(want, sizeof want, "\"ifname\":\"%s\"", i->name);
    from = strstr(json, want);
    if (!from) return false;
    to = strstr(from + 1, "\"ifname\":");
    if (netio_addr_format_host(&i->addr, host, sizeof host) < 0) return false;
    if (strchr(host, '%')) *strchr(host, '%') = 0;
    snprintf(want, sizeof want, "\"local\":\"%s\"", host);
    found = strstr(from, want);
    if (!found || (to && found > to)) return false;
    snprintf(want, sizeof want, "\"prefixlen\":%d,", (int)i->prefix_bits);
    if (!strstr(found, want) || strstr(found, want) - found > 80) return false;
    if (i->broadcast.len == 0) return true;
    if (netio_addr_format_host(&i->broadcast, host, sizeof host) < 0) return false;
    snprintf(want, sizeof want, "\"broadcast\":\"%s\"", host);
    return strstr(found, want) != NULL;
}

TEST(diag, they_are_those_that_ip_prints)
{
    static char json[1 << 18];
    FILE *f = on_linux ? popen("ip -j addr 2>/dev/null", "r") : NULL;
    size_t len = f ? fread(json, 1, sizeof json - 1, f) : 0;
    ptrdiff_t count, locals = 0;
    if (f) pclose(f);
    if (len < 3) SKIP("there is no ip with -j here");
    if (test_under("qemu")) SKIP("qemu-user swaps the bytes of broadcast addresses");
    json[len] = 0;
    count = netio_interfaces(interfaces, 256);
    for (ptrdiff_t i = 0; i < count && i < 256; i++)
        if (!ip_says(json, &interfaces[i]))
            test_fail(__FILE__, __LINE__, "%s: address %ld is another there", interfaces[i].name,
                      (long)i);
    for (const char *p = json; (p = strstr(p, "\"local\":")) != NULL; p++) locals++;
    CHECK_EQ(locals, count);
}
#else
TEST(diag, they_are_those_of_getifaddrs) { SKIP("no such call on this system"); }
TEST(diag, they_are_those_that_ip_prints) { SKIP("no such program on this system"); }
#endif

TEST(diag, an_interface_goes_by_name_number_and_address)
{
    // clang-format off
    static const char *const none[] = {
        "", "nonsense0", "0", "999999", "4294967295", "4294967296", "-1", "127.0.0.1:80",
        "127.0.0.2", "203.0.113.9", "2001:db8::9", "[::1]",
        "an-interface-name-that-is-longer-than-any-system-would-take"};
    // clang-format on
    uint32_t lo = netio_interface_index("127.0.0.1");
    char number[16];
    netio_socket s;
    CHECK(lo != 0);
    snprintf(number, sizeof number, "%u", (unsigned)lo);
    CHECK_EQ(lo, netio_interface_index(number));
    if (on_linux) CHECK_EQ(lo, netio_interface_index("lo"));
    if (netio_bind(&s, "[::1]:0", NULL) == 0) {
        CHECK_EQ(lo, netio_interface_index("::1"));
        CHECK_OK(netio_close(&s));
    }
    CHECK_EQ(0, netio_interface_index(NULL));
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        if (netio_interface_index(none[i]) != 0)
            test_fail(__FILE__, __LINE__, "\"%s\" is %u", none[i],
                      (unsigned)netio_interface_index(none[i]));
}

#ifdef __linux__
// An address more for "lo", as its alias number i.
static bool add_address(int s, int i)
{
    struct ifreq r;
    netio_addr a;
    char text[32];
    size_t len;
    memset(&r, 0, sizeof r);
    snprintf(r.ifr_name, sizeof r.ifr_name, "lo:%d", i);
    snprintf(text, sizeof text, "127.1.%d.%d:0", i / 200, i % 200 + 1);
    if (netio_addr_parse(&a, text, strlen(text)) < 0) return false;
    memcpy(&r.ifr_addr, netio_addr_sockaddr(&a, &len), sizeof r.ifr_addr);
    return ioctl(s, SIOCSIFADDR, &r) == 0;
}

static int few_and_many_addresses(void)
{
    static netio_interface list[400];
    struct ifreq r;
    netio_socket s;
    netio_addr g;
    int link, index = 0, fd = socket(AF_INET, SOCK_DGRAM, 0);
    ptrdiff_t n;
    NEED(fd >= 0);
    // Nothing is up yet: no addresses at all.
    NEED(netio_interfaces(list, 400) == 0);
    NEED(netio_interfaces(NULL, 0) == 0);
    NEED(netio_interface_index("127.0.0.1") == 0);
    NEED(netio_interface_index("lo") == 1 && netio_interface_index("1") == 1);
    if (!lo_up()) return CANNOT;
    n = netio_interfaces(list, 400);
    NEED(n >= 1 && n <= 2);
    // More than anybody's array on the stack would hold.
    for (int i = 0; i < 300; i++) NEED(add_address(fd, i));
    NEED(netio_interfaces(list, 400) == n + 300);
    NEED(netio_interface_index("127.1.0.1") == 1);
    NEED(netio_interface_index("127.1.1.100") == 1); // the last
    NEED(netio_interface_index("127.1.1.101") == 0);
    // An interface behind all these addresses, itself without any, goes by its number too.
    link = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    memset(&r, 0, sizeof r);
    memcpy(r.ifr_name, "far0", 5);
    r.ifr_flags = 0x1001; // IFF_TUN | IFF_NO_PI
    if (link >= 0 && ioctl(link, 0x400454caul /* TUNSETIFF */, &r) == 0) {
        char number[16];
        netio_addr a;
        uint32_t far = netio_interface_index("far0");
        NEED(far > 1);
        snprintf(number, sizeof number, "%u", (unsigned)far);
        NEED(netio_interface_index(number) == far);
        NEED(netio_bind(&s, "127.0.0.1:0", NULL) == 0);
        NEED(netio_addr_parse(&g, "239.1.2.3:9", 11) == 0);
        NEED(netio_multicast_join(s, &g, far, NULL) == 0);
        // With an address, it is the last of all, and options find it there.
        NEED(netio_addr_parse(&a, "10.77.0.1:0", 11) == 0);
        memset(&r, 0, sizeof r);
        memcpy(r.ifr_name, "far0", 5);
        memcpy(&r.ifr_addr, netio_addr_sockaddr(&a, &(size_t){0}), sizeof r.ifr_addr);
        NEED(ioctl(fd, SIOCSIFADDR, &r) == 0);
        NEED(netio_interface_index("10.77.0.1") == far);
        NEED(netio_set_option(s, NETIO_OPT_MULTICAST_IF, (int)far) == 0);
        NEED(netio_get_option(s, NETIO_OPT_MULTICAST_IF, &index) == 0 && index == (int)far);
        netio_close(&s);
    }
    if (link >= 0) close(link);
    close(fd);
    return 0;
}

TEST(diag, no_addresses_and_hundreds_of_them)
{
    int code;
    if (test_under("qemu") || test_under("valgrind")) SKIP("unshare is not for emulators");
    code = in_child(few_and_many_addresses, true);
    if (code == CANNOT) SKIP("needs a network of its own: root");
    CHECK_EQ(0, code);
}
#else
TEST(diag, no_addresses_and_hundreds_of_them) { SKIP("needs a network of its own: Linux"); }
#endif

TEST(diag, a_socket_of_a_device_hears_that_device_alone)
{
    const char *names[2] = {NULL, NULL}; // the loopback interface, and another one
    netio_socket s;
    ptrdiff_t count = netio_interfaces(interfaces, 256);
    int err = 0;
    if (!netio_option_supported(NETIO_OPT_DEVICE)) SKIP("not on this system");
    if (test_under("qemu")) SKIP("qemu-user does not translate options of text");
    for (ptrdiff_t i = 0; i < count && i < 256; i++)
        names[interfaces[i].flags & NETIO_IF_LOOPBACK ? 0 : 1] = interfaces[i].name;
    if (!names[0] || !names[1]) SKIP("there is only one interface");
    CHECK_OK(netio_bind(&s, "127.0.0.1:0", NULL));
    for (int i = 0; i < 2 && err == 0; i++) {
        netio_socket r;
        netio_addr to;
        char buf[8];
        CHECK_OK(netio_bind(&r, "0.0.0.0:0", NULL));
        err = netio_set_option_text(r, NETIO_OPT_DEVICE, names[i]);
        if (err == 0) {
            CHECK_OK(netio_local_addr(r, &to));
            loopback(&to, netio_addr_port(&to));
            CHECK_ERR(2, netio_sendto(s, "hi", 2, &to, 1000));
            if (i == 0) CHECK_ERR(2, netio_recv(r, buf, sizeof buf, 5000));
            else CHECK_ERR(NETIO_EAGAIN, netio_recv(r, buf, sizeof buf, 0));
            CHECK_OK(netio_set_option_text(r, NETIO_OPT_DEVICE, "")); // any, again
            CHECK_ERR(2, netio_sendto(s, "hi", 2, &to, 1000));
            CHECK_ERR(2, netio_recv(r, buf, sizeof buf, 5000));
        }
        CHECK_OK(netio_close(&r));
    }
    CHECK_OK(netio_close(&s));
    if (err == NETIO_EACCES) SKIP("needs a right that this user lacks, and netio says so");
    CHECK_OK(err);
}

//================================================================================================
// Helpers for looking at bytes
//================================================================================================

static uint16_t plain_checksum(const uint8_t *p, size_t len) // RFC 1071 section 4.1, word by word
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
        if (sum > 0xFFFF) sum -= 0xFFFF;
    }
    return (uint16_t)~sum;
}

TEST(diag, the_internet_checksum)
{
    static const uint8_t rfc1071[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    static const uint8_t header[] = {0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11,
                                     0x00, 0x00, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7};
    static uint8_t big[1 << 20];
    uint8_t with[20];
    CHECK_EQ(0x220d, netio_checksum_inet(rfc1071, 8)); // its sum is ddf2
    CHECK_EQ(0x0dfe, netio_checksum_inet(rfc1071, 3)); // an odd byte is the high half of a word
    CHECK_EQ(0xFFFF, netio_checksum_inet(rfc1071, 0));
    CHECK_EQ(0xFFFF, netio_checksum_inet(NULL, 0));
    CHECK_EQ(0xFFFF, netio_checksum_inet(NULL, 10)); // counts as none
    CHECK_EQ(0xFFFE, netio_checksum_inet(rfc1071, 2));
    CHECK_EQ(0xFFFF, netio_checksum_inet(rfc1071, 1));
    CHECK_EQ(0xb861, netio_checksum_inet(header, 20));
    memcpy(with, header, 20);
    with[10] = 0xb8;
    with[11] = 0x61;
    CHECK_EQ(0, netio_checksum_inet(with, 20)); // what was put in place sums up to nothing
    test_fill(big, sizeof big, 4);
    for (size_t len = 0; len < 300; len++) {
        CHECK_EQ(plain_checksum(big, len), netio_checksum_inet(big, len));
        CHECK_EQ(plain_checksum(big + 1, len), netio_checksum_inet(big + 1, len));
    }
    CHECK_EQ(plain_checksum(big, sizeof big), netio_checksum_inet(big, sizeof big));
    memset(big, 0xFF, sizeof big);
    CHECK_EQ(0, netio_checksum_inet(big, sizeof big));
    CHECK_EQ(0x00FF, netio_checksum_inet(big, sizeof big - 1));
}

// clang-format off
static const struct { const char *bytes; size_t len; const char *text; } dumps[] = {
    {"", 0, ""},
    {"A", 1, "0000  41                                               A\n"},
    {"Hello", 5, "0000  48 65 6c 6c 6f                                   Hello\n"},
    {"\x00\x1f ~\x7f\x80\xff\t\n", 9,
     "0000  00 1f 20 7e 7f 80 ff 09 0a                       .. ~.....\n"},
    {"0123456789abcde", 15,
     "0000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65     0123456789abcde\n"},
    {"0123456789abcdef", 16,
     "0000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef\n"},
    {"0123456789abcdefg", 17,
     "0000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef\n"
     "0010  67                                               g\n"},
};
// clang-format on

TEST(diag, hex_dumps_letter_by_letter)
{
    for (size_t i = 0; i < sizeof dumps / sizeof dumps[0]; i++) {
        char buf[256];
        memset(buf, 'x', sizeof buf);
        CHECK_EQ(strlen(dumps[i].text),
                 netio_hexdump(buf, sizeof buf, dumps[i].bytes, dumps[i].len));
        CHECK_STR(dumps[i].text, buf);
    }
}

TEST(diag, a_hex_dump_that_does_not_fit_is_cut_and_terminated)
{
    for (size_t i = 0; i < sizeof dumps / sizeof dumps[0]; i++) {
        size_t len = strlen(dumps[i].text);
        for (size_t cap = 0; cap <= len + 1; cap++) {
            char buf[256];
            ptrdiff_t n;
            memset(buf, 'x', sizeof buf);
            n = netio_hexdump(cap ? buf : NULL, cap, dumps[i].bytes, dumps[i].len);
            CHECK_ERR(cap > len ? (ptrdiff_t)len : (ptrdiff_t)NETIO_ENOSPC, n);
            CHECK_EQ('x', buf[cap]);
            if (cap == 0) continue;
            CHECK_EQ(cap > len ? len : cap - 1, strlen(buf));
            CHECK_MEM(dumps[i].text, buf, strlen(buf));
        }
    }
    CHECK_ERR(NETIO_EINVAL, netio_hexdump(NULL, 10, "x", 1));
    CHECK_ERR(NETIO_EINVAL, netio_hexdump((char[4]){0}, 4, NULL, 1));
}

TEST(diag, offsets_of_a_hex_dump_get_wider_when_they_must)
{
    enum { BYTES = 0x10000 + 17 };
    static uint8_t data[BYTES];
    static char text[(BYTES / 16 + 1) * 80];
    ptrdiff_t n;
    const char *line;
    memset(data, 'z', sizeof data);
    n = netio_hexdump(text, sizeof text, data, sizeof data);
    CHECK(n > 0);
    CHECK_EQ(strlen(text), n);
    line = strstr(text, "\nfff0  7a");
    CHECK(line != NULL);
    line = strchr(line + 1, '\n');
    CHECK_STR("\n10000  7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a  zzzzzzzzzzzzzzzz\n"
              "10010  7a                                               z\n",
              line);
}

TEST(diag, text_is_told_from_bytes)
{
    // clang-format off
    static const struct { const char *bytes; size_t len; bool text; } guesses[] = {
        {"GET /\r\n", 7, true}, {"a", 1, true}, {" ~", 2, true}, {"\t", 1, true}, {"\n", 1, true},
        {"caf\xC3\xA9", 5, true}, {"\xE2\x82\xAC", 3, true}, {"\xF0\x9F\x98\x80", 4, true},
        {"\xED\x9F\xBF", 3, true}, {"\xEE\x80\x80", 3, true}, {"\xF4\x8F\xBF\xBF", 4, true},
        {"", 0, false}, {"\xFF", 1, false}, {"a\0b", 3, false}, {"\x1b[0m", 4, false},
        {"\x7f", 1, false}, {"\x80", 1, false}, {"a\x80", 2, false}, {"\xC3(", 2, false},
        {"\xC0\x80", 2, false}, {"\xC1\xBF", 2, false},          // longer than needed
        {"\xE0\x80\x80", 3, false}, {"\xE0\x9F\xBF", 3, false},
        {"\xF0\x80\x80\x80", 4, false}, {"\xF0\x8F\xBF\xBF", 4, false},
        {"\xED\xA0\x80", 3, false}, {"\xED\xBF\xBF", 3, false},  // halves of surrogates
        {"\xF4\x90\x80\x80", 4, false}, {"\xF5\x80\x80\x80", 4, false}, // beyond U+10FFFF
        {"\xE2\x28\xA1", 3, false}, {"\xE2\x82\x28", 3, false}, {"\xF0\x9F\x98", 3, true}, // cut
    };
    // clang-format on
    for (size_t i = 0; i < sizeof guesses / sizeof guesses[0]; i++)
        if (netio_looks_like_text(guesses[i].bytes, guesses[i].len) != guesses[i].text)
            test_fail(__FILE__, __LINE__, "number %lu is%s text", (unsigned long)i,
                      guesses[i].text ? "" : " no");
    CHECK(!netio_looks_like_text(NULL, 0));
    CHECK(!netio_looks_like_text(NULL, 5));
    for (int c = 0; c < 256; c++) {
        char one = (char)c;
        bool plain = (c >= 0x20 && c <= 0x7E) || c == '\t' || c == '\n' || c == '\r';
        bool begins = c >= 0xC2 && c <= 0xF4; // a longer character, cut by the end
        CHECK_EQ(plain || begins, netio_looks_like_text(&one, 1));
    }
}

//================================================================================================
// Raw sockets
//================================================================================================

TEST(diag, unknown_numbers_are_refused_by_name)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    int err;
    CHECK_ERR(NETIO_EAFNOSUPPORT, netio_open(&s, 250, SOCK_STREAM, 0));
    CHECK(netio_os_error() != 0); // the system's own code
    err = netio_open(&s, AF_INET, 99, 0);
    CHECK(err == NETIO_ENOTSUP || err == NETIO_EINVAL);
    CHECK(netio_os_error() != 0);
    CHECK_ERR(NETIO_ENOTSUP, netio_open(&s, AF_INET, SOCK_STREAM, IPPROTO_UDP));
    CHECK_ERR(NETIO_ENOTSUP, netio_open(&s, AF_INET, SOCK_DGRAM, IPPROTO_TCP));
    CHECK(s == NETIO_INVALID_SOCKET);
    // Bluetooth is there or it is not; either is an answer.
    err = netio_open(&s, on_windows ? 32 : 31, SOCK_STREAM, 3);
    if (err == 0) CHECK_OK(netio_close(&s));
    else CHECK(s == NETIO_INVALID_SOCKET);
}

// An echo request, RFC 792: type, code, checksum, identifier, sequence, payload. Type 128: ICMPv6,
// whose checksum the kernel makes.
enum { ECHO_LEN = 8 + 24 };

static void make_echo(uint8_t *p, int type, unsigned id, unsigned sequence)
{
    uint16_t sum;
    memset(p, 0, ECHO_LEN);
    p[0] = (uint8_t)type;
    p[4] = (uint8_t)(id >> 8);
    p[5] = (uint8_t)id;
    p[6] = (uint8_t)(sequence >> 8);
    p[7] = (uint8_t)sequence;
    test_fill(p + 8, ECHO_LEN - 8, id + sequence);
    sum = netio_checksum_inet(p, ECHO_LEN);
    p[2] = (uint8_t)(sum >> 8);
    p[3] = (uint8_t)sum;
}

// Whether a packet is the reply to the request: all but type and checksum are the same. `skip`: the
// IPv4 header that raw sockets hand out too.
static bool is_reply(const uint8_t *p, size_t len, size_t skip, const uint8_t *request, int type)
{
    if (len != skip + ECHO_LEN || p[skip] != type || p[skip + 1] != 0) return false;
    return memcmp(p + skip + 4, request + 4, ECHO_LEN - 4) == 0;
}

// SKIPs without the right to raw sockets, after a look at the refusal.
static netio_socket open_raw(int family, int type, int protocol)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    int err = netio_open(&s, family, type, protocol);
    if (err == NETIO_EACCES) SKIP("needs a right that this user lacks, and netio says so");
    if (err < 0 && (test_under("wine") || test_under("qemu") || !on_linux))
        SKIP("not here: %s", netio_errname(err));
    CHECK_OK(err);
    return s;
}

static unsigned echo_id(void)
{
#ifdef _WIN32
    return (unsigned)GetCurrentProcessId() & 0xFFFF;
#else
    return (unsigned)getpid() & 0xFFFF;
#endif
}

// Receives until the reply comes; others' packets pass by on a raw socket.
static size_t await_reply(netio_socket s, uint8_t *got, const uint8_t *request, bool header,
                          int type)
{
    int64_t by = netio_deadline(5000);
    for (;;) {
        netio_addr from;
        ptrdiff_t n = netio_recvfrom(s, got, 256, &from, netio_deadline_left(by));
        size_t skip;
        CHECK(n > 0);
        skip = header ? (size_t)(got[0] & 15) * 4 : 0;
        if (n > 256 || !is_reply(got, (size_t)n, skip, request, type)) continue;
        CHECK(netio_addr_class(&from) & NETIO_ADDR_LOOPBACK);
        return skip;
    }
}

TEST(diag, a_raw_echo_is_answered)
{
    netio_socket s;
    netio_addr to;
    uint8_t request[ECHO_LEN], got[256];
    size_t skip;
    if (test_under("wine")) SKIP("Wine has its own idea of raw sockets");
    s = open_raw(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    loopback(&to, 0);
    for (unsigned sequence = 1; sequence <= 3; sequence++) {
        make_echo(request, 8, echo_id(), sequence);
        CHECK_ERR(ECHO_LEN, netio_sendto(s, request, ECHO_LEN, &to, 1000));
        skip = await_reply(s, got, request, true, 0);
        CHECK_EQ(20, skip);
        CHECK_EQ(4, got[0] >> 4); // IPv4, ICMP, from and to 127.0.0.1
        CHECK_EQ(1, got[9]);
        CHECK_MEM("\x7f\0\0\1\x7f\0\0\1", got + 12, 8);
        CHECK_EQ(0, netio_checksum_inet(got, skip));
        CHECK_EQ(0, netio_checksum_inet(got + skip, ECHO_LEN));
    }
    CHECK_OK(netio_close(&s));
}

TEST(diag, a_hand_made_header_goes_as_it_is)
{
    netio_socket s;
    netio_addr to;
    uint8_t packet[20 + ECHO_LEN], got[256];
    uint16_t sum;
    if (test_under("wine")) SKIP("Wine has its own idea of raw sockets");
    s = open_raw(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (netio_set_option(s, NETIO_OPT_HDRINCL, 1) < 0 && test_under("qemu")) {
        CHECK_OK(netio_close(&s));
        SKIP("qemu-user does not translate the option");
    }
    CHECK_OK(netio_set_option(s, NETIO_OPT_HDRINCL, 1));
    loopback(&to, 0);
    memset(packet, 0, sizeof packet);
    packet[0] = 0x45;
    packet[1] = 0x10; // a traffic class and hops of our own choice
    packet[3] = (uint8_t)(sizeof packet);
    packet[8] = 77;
    packet[9] = 1;
    memcpy(packet + 12, "\x7f\0\0\5\x7f\0\0\1", 8); // and a source that nothing is bound to
    sum = netio_checksum_inet(packet, 20);
    packet[10] = (uint8_t)(sum >> 8);
    packet[11] = (uint8_t)sum;
    make_echo(packet + 20, 8, echo_id(), 9);
    CHECK_ERR(sizeof packet, netio_sendto(s, packet, sizeof packet, &to, 1000));
    await_reply(s, got, packet + 20, true, 0);
    CHECK_MEM("\x7f\0\0\1\x7f\0\0\5", got + 12, 8); // answered to whom the header named
    CHECK_OK(netio_close(&s));
}

TEST(diag, an_icmpv6_echo_is_answered)
{
    netio_socket s, probe;
    netio_addr to;
    uint8_t request[ECHO_LEN], got[256];
    if (netio_bind(&probe, "[::1]:0", NULL) < 0) SKIP("no IPv6 here");
    CHECK_OK(netio_close(&probe));
    if (test_under("wine")) SKIP("Wine has its own idea of raw sockets");
    s = open_raw(AF_INET6, SOCK_RAW, 58);
    CHECK_OK(netio_addr_loopback(&to, NETIO_IPV6, 0));
    make_echo(request, 128, echo_id(), 1);
    CHECK_ERR(ECHO_LEN, netio_sendto(s, request, ECHO_LEN, &to, 1000));
    await_reply(s, got, request, false, 129); // without a header, RFC 3542 section 3
    CHECK_OK(netio_close(&s));
}

#ifdef __linux__
static int unprivileged_echo(void)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    FILE *f;
    if (!lo_up()) return CANNOT;
    f = fopen("/proc/sys/net/ipv4/ping_group_range", "w");
    if (!f || fputs("65533 65533\n", f) < 0 || fclose(f) != 0) return CANNOT;
    if (setgid(65532) != 0 || setuid(65534) != 0) return CANNOT;
    // Neither raw nor, of another group, this way.
    NEED(netio_open(&s, AF_INET, SOCK_RAW, IPPROTO_ICMP) == NETIO_EACCES);
    NEED(netio_os_error() == EPERM);
    NEED(netio_open(&s, AF_INET, SOCK_DGRAM, IPPROTO_ICMP) == NETIO_EACCES);
    NEED(netio_open(&s, AF_PACKET, SOCK_RAW, 0) == NETIO_EACCES);
    NEED(s == NETIO_INVALID_SOCKET);
    return 0;
}

static int group_echo(void)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_addr to;
    uint8_t request[ECHO_LEN], got[256];
    FILE *f;
    uint64_t sent;
    if (!lo_up()) return CANNOT;
    f = fopen("/proc/sys/net/ipv4/ping_group_range", "w");
    if (!f || fputs("65533 65533\n", f) < 0 || fclose(f) != 0) return CANNOT;
    if (setgid(65533) != 0 || setuid(65534) != 0) return CANNOT;
    NEED(netio_open(&s, AF_INET, SOCK_DGRAM, IPPROTO_ICMP) == 0);
    NEED(netio_addr_loopback(&to, NETIO_IPV4, 0) == 0);
    make_echo(request, 8, 1, 1); // the kernel writes an identifier of its own
    sent = netio_now_us();
    NEED(netio_sendto(s, request, ECHO_LEN, &to, 1000) == ECHO_LEN);
    NEED(netio_recv(s, got, sizeof got, 5000) == ECHO_LEN);           // without the IPv4 header
    NEED(netio_now_us() >= sent && netio_now_us() - sent < 5000000u); // the round trip
    NEED(got[0] == 0 && got[7] == 1);
    NEED(memcmp(got + 8, request + 8, ECHO_LEN - 8) == 0);
    netio_close(&s);
    return 0;
}

static void as_nobody(int (*run)(void))
{
    int code;
    if (test_under("qemu") || test_under("valgrind")) SKIP("unshare is not for emulators");
    code = in_child(run, true);
    if (code == CANNOT) SKIP("needs a network of its own: root");
    CHECK_EQ(0, code);
}

TEST(diag, without_rights_raw_is_eacces) { as_nobody(unprivileged_echo); }
TEST(diag, an_echo_without_rights_where_the_group_may) { as_nobody(group_echo); }
#else
TEST(diag, without_rights_raw_is_eacces) { SKIP("needs a network of its own: Linux"); }
TEST(diag, an_echo_without_rights_where_the_group_may)
{
    SKIP("needs a network of its own: Linux");
}
#endif

//================================================================================================
// Sockets by number, under every poller
//================================================================================================

#ifdef __linux__
static void each_poller(netio_socket s, void (*arrive)(netio_socket s),
                        void (*take)(netio_socket s))
{
    for (int b = NETIO_BACKEND_SELECT; b <= NETIO_BACKEND_IOURING; b++) {
        netio_poller *p;
        netio_event e[4];
        if (!netio_backend_available(b)) continue;
        CHECK_OK(netio_poller_open(&p, b));
        CHECK_OK(netio_poller_add(p, s, NETIO_EV_READ, &p));
        CHECK_EQ(0, netio_poller_wait(p, e, 4, 0));
        arrive(s);
        CHECK_EQ(1, netio_poller_wait(p, e, 4, 5000));
        CHECK(e[0].socket == s);
        CHECK(e[0].user == &p);
        CHECK(e[0].events & NETIO_EV_READ);
        take(s);
        CHECK_EQ(0, netio_poller_wait(p, e, 4, 0));
        CHECK_OK(netio_poller_modify(p, s, NETIO_EV_WRITE, NULL));
        CHECK_EQ(1, netio_poller_wait(p, e, 4, 5000));
        CHECK(e[0].events & NETIO_EV_WRITE);
        CHECK_OK(netio_poller_remove(p, s));
        netio_poller_close(p);
    }
}

static netio_addr number_address;

// rtnetlink, by hand because not every compiler here can find the kernel's headers.
static void ask_links(netio_socket s)
{
    struct {
        uint32_t len;
        uint16_t type, flags;
        uint32_t sequence, pid;
        uint8_t family, pad[15];
    } request;
    memset(&request, 0, sizeof request);
    request.len = sizeof request;
    request.type = 18;      // RTM_GETLINK
    request.flags = 0x0301; // NLM_F_REQUEST | NLM_F_DUMP
    request.sequence = 7;
    CHECK_ERR(sizeof request, netio_sendto(s, &request, sizeof request, &number_address, 1000));
}

static void take_links(netio_socket s)
{
    static uint8_t buf[1 << 16];
    bool lo = false, done = false;
    while (!done) {
        netio_addr from;
        ptrdiff_t n = netio_recvfrom(s, buf, sizeof buf, &from, 5000);
        uint32_t len = 0;
        CHECK_BETWEEN(16, sizeof buf, n);
        CHECK(netio_addr_equal(&number_address, &from)); // the kernel's
        for (size_t at = 0; at + 16 <= (size_t)n; at += (len + 3) & ~3u) {
            uint16_t type;
            memcpy(&len, buf + at, 4);
            memcpy(&type, buf + at + 4, 2);
            CHECK(len >= 16);
            if (type == 3) done = true; // NLMSG_DONE
            for (size_t k = at; k + 3 <= at + len && !lo; k++) lo = memcmp(buf + k, "lo", 3) == 0;
        }
    }
    CHECK(lo);
}

TEST(diag, netlink_by_number)
{
    netio_socket s;
    struct {
        uint16_t family, pad;
        uint32_t pid, groups;
    } kernel = {AF_NETLINK, 0, 0, 0};
    char text[NETIO_ADDR_TEXT];
    netio_addr own;
    int value = 0;
    if (test_under("qemu")) SKIP("qemu-user translates but a part of it");
    CHECK_OK(netio_open(&s, AF_NETLINK, SOCK_RAW, 0 /* NETLINK_ROUTE */));
    CHECK_OK(netio_addr_from_sockaddr(&number_address, &kernel, sizeof kernel));
    CHECK_EQ(-AF_NETLINK, netio_addr_family(&number_address));
    CHECK_EQ(9, netio_addr_format(&number_address, text, sizeof text));
    CHECK_STR("family:16", text);
    CHECK_EQ(0, os_bind(s, &number_address));
    CHECK_OK(netio_local_addr(s, &own));
    CHECK_EQ(-AF_NETLINK, netio_addr_family(&own));
    CHECK(!netio_addr_equal(&own, &number_address)); // the kernel chose a port
    CHECK_OK(netio_get_option(s, NETIO_OPT_FAMILY, &value));
    CHECK_EQ(-AF_NETLINK, value);
    each_poller(s, ask_links, take_links);
    CHECK_ERR(NETIO_EAGAIN, netio_recv(s, &(char){0}, 1, 0));
    CHECK_OK(netio_close(&s));
}

static netio_socket packet_sender;
static netio_addr packet_to;
static char packet_text[32];
static uint8_t frame[1 << 16];

static void send_packet(void)
{
    static unsigned number;
    snprintf(packet_text, sizeof packet_text, "frame %u of this test", ++number);
    CHECK_ERR(strlen(packet_text),
              netio_sendto(packet_sender, packet_text, strlen(packet_text), &packet_to, 1000));
}

// Captures into `frame` until our own datagram comes by, or for a second: among the traffic of
// others it may have been dropped.
static bool capture_packet(netio_socket s, netio_addr *link)
{
    int64_t by = netio_deadline(1000);
    netio_addr own;
    CHECK_OK(netio_local_addr(packet_sender, &own));
    for (;;) {
        ptrdiff_t n = netio_recvfrom(s, frame, sizeof frame, link, netio_deadline_left(by));
        if (n == NETIO_ETIMEDOUT || n == NETIO_EAGAIN) return false;
        CHECK(n > 0);
        if ((size_t)n == 14 + 20 + 8 + strlen(packet_text) && frame[23] == 17 &&
            ((unsigned)frame[34] << 8 | frame[35]) == netio_addr_port(&own) &&
            ((unsigned)frame[36] << 8 | frame[37]) == netio_addr_port(&packet_to))
            return true;
    }
}

// Every field of its headers that is not left to chance.
static void check_packet(const netio_addr *link)
{
    static char dump[8192];
    struct sockaddr_ll ll;
    size_t len = strlen(packet_text), link_len;
    const void *raw = netio_addr_sockaddr(link, &link_len);
    memset(&ll, 0, sizeof ll);
    memcpy(&ll, raw, link_len < sizeof ll ? link_len : sizeof ll);
    CHECK_EQ(-AF_PACKET, netio_addr_family(link));
    CHECK_EQ(AF_PACKET, ll.sll_family);
    CHECK_EQ(1, ll.sll_ifindex);
    CHECK_MEM("\0\0\0\0\0\0\0\0\0\0\0\0\x08\x00\x45", frame, 15); // Ethernet, then IPv4
    CHECK_EQ(20 + 8 + len, (size_t)frame[16] << 8 | frame[17]);
    CHECK_EQ(0, netio_checksum_inet(frame + 14, 20));
    CHECK_MEM("\x7f\0\0\1\x7f\0\0\1", frame + 26, 8);
    CHECK_EQ(8 + len, (size_t)frame[38] << 8 | frame[39]);
    CHECK_MEM(packet_text, frame + 42, len);
    CHECK(netio_looks_like_text(frame + 42, len));
    CHECK(netio_hexdump(dump, sizeof dump, frame, 42 + len) > 0);
    CHECK_MEM("0000  00 00 00 00 00 00 00 00 00 00 00 00 08 00 45 00  ..............E.\n0010  ",
              dump, 78);
}

TEST(diag, a_capture_of_our_own_datagram)
{
    netio_socket s, receiver;
    struct sockaddr_ll ll;
    netio_addr link;
    if (test_under("qemu")) SKIP("qemu-user does not translate these addresses");
    s = open_raw(AF_PACKET, SOCK_RAW, 0); // 0: nothing before it is bound
    memset(&ll, 0, sizeof ll);
    ll.sll_family = AF_PACKET;
    ll.sll_protocol = htons(0x0800); // IPv4
    ll.sll_ifindex = (int)netio_interface_index("lo");
    CHECK_OK(netio_addr_from_sockaddr(&link, &ll, sizeof ll));
    CHECK_OK(netio_bind(&receiver, "127.0.0.1:0", NULL));
    CHECK_OK(netio_bind(&packet_sender, "127.0.0.1:0", NULL));
    CHECK_OK(netio_local_addr(receiver, &packet_to));
    CHECK_EQ(0, os_bind(s, &link));
    for (int i = 0; i < 5; i++) {
        send_packet();
        if (!capture_packet(s, &link)) continue;
        check_packet(&link);
        break;
    }
    CHECK_EQ(-AF_PACKET, netio_addr_family(&link));
    CHECK_MEM(packet_text, frame + 42, strlen(packet_text));
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&receiver));
    CHECK_OK(netio_close(&packet_sender));
}

static int quiet_capture(void)
{
    netio_socket receiver, s;
    struct sockaddr_ll ll;
    netio_addr link;
    if (!lo_up()) return CANNOT;
    if (netio_open(&s, AF_PACKET, SOCK_RAW, 0) < 0) return CANNOT;
    memset(&ll, 0, sizeof ll);
    ll.sll_family = AF_PACKET;
    ll.sll_protocol = htons(0x0800);
    ll.sll_ifindex = 1;
    NEED(netio_addr_from_sockaddr(&link, &ll, sizeof ll) == 0 && os_bind(s, &link) == 0);
    NEED(netio_bind(&receiver, "127.0.0.1:0", NULL) == 0);
    NEED(netio_bind(&packet_sender, "127.0.0.1:0", NULL) == 0);
    NEED(netio_local_addr(receiver, &packet_to) == 0);
    for (int b = NETIO_BACKEND_SELECT; b <= NETIO_BACKEND_IOURING; b++) {
        netio_poller *p;
        netio_event e[4];
        char buf[256];
        if (!netio_backend_available(b)) continue;
        NEED(netio_poller_open(&p, b) == 0);
        NEED(netio_poller_add(p, s, NETIO_EV_READ, NULL) == 0);
        NEED(netio_poller_wait(p, e, 4, 0) == 0);
        NEED(netio_sendto(packet_sender, "x", 1, &packet_to, 1000) == 1);
        NEED(netio_poller_wait(p, e, 4, 5000) == 1 && e[0].socket == s);
        while (netio_recv(s, buf, sizeof buf, 20) >= 0) {}
        NEED(netio_poller_wait(p, e, 4, 0) == 0);
        netio_poller_close(p);
    }
    netio_close(&s);
    netio_close(&receiver);
    netio_close(&packet_sender);
    return 0;
}

TEST(diag, a_capture_under_every_poller)
{
    int code;
    if (test_under("qemu") || test_under("valgrind")) SKIP("unshare is not for emulators");
    code = in_child(quiet_capture, true);
    if (code == CANNOT) SKIP("needs a network of its own: root");
    CHECK_EQ(0, code);
}

static netio_socket lite_sender;

static void send_lite(netio_socket s)
{
    (void)s;
    CHECK_ERR(4, netio_sendto(lite_sender, "lite", 4, &number_address, 1000));
}

static void take_lite(netio_socket s)
{
    char buf[8];
    netio_addr from;
    CHECK_ERR(4, netio_recvfrom(s, buf, sizeof buf, &from, 5000));
    CHECK_MEM("lite", buf, 4);
    CHECK(netio_addr_class(&from) & NETIO_ADDR_LOOPBACK);
}

TEST(diag, udp_lite_by_number)
{
    netio_socket s;
    netio_datagram m;
    int err = netio_open(&s, AF_INET, SOCK_DGRAM, 136), value = 0;
    char buf[64];
    if (err < 0) {
        CHECK_ERR(NETIO_ENOTSUP, err);
        SKIP("not in this kernel, and netio says so");
    }
    CHECK_OK(netio_open(&lite_sender, AF_INET, SOCK_DGRAM, 136));
    loopback(&number_address, 0);
    CHECK_EQ(0, os_bind(s, &number_address));
    CHECK_OK(netio_local_addr(s, &number_address));
    CHECK_OK(netio_get_option(s, NETIO_OPT_TYPE, &value));
    CHECK_EQ(NETIO_DGRAM, value);
    each_poller(s, send_lite, take_lite);
    // Batches and cutting by hand, which this protocol's kernel code refuses to do.
    memset(&m, 0, sizeof m);
    test_fill(buf, 50, 1);
    m.data = buf;
    m.len = 50;
    m.segment = 20;
    m.peer = number_address;
    CHECK_ERR(1, netio_send_batch(lite_sender, &m, 1, 1000));
    CHECK_ERR(20, netio_recv(s, buf, sizeof buf, 5000));
    CHECK_ERR(20, netio_recv(s, buf, sizeof buf, 5000));
    CHECK_ERR(10, netio_recv(s, buf, sizeof buf, 5000));
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&lite_sender));
}

typedef struct vsock_addr { // struct sockaddr_vm
    uint16_t family, reserved;
    uint32_t port, cid;
    uint8_t flags, zero[3];
} vsock_addr;

TEST(diag, vsock_by_number)
{
    enum { VSOCK = 40, CID_LOCAL = 1 };
    netio_socket listener = NETIO_INVALID_SOCKET, client = NETIO_INVALID_SOCKET, server;
    vsock_addr a;
    netio_addr at;
    socklen_t len = sizeof a;
    int err = netio_open(&listener, VSOCK, SOCK_STREAM, 0);
    char buf[8];
    if (err < 0) {
        CHECK(err == NETIO_EAFNOSUPPORT || err == NETIO_ENOTSUP || err == NETIO_EACCES);
        SKIP("not in this kernel, and netio says so: %s", netio_errname(err));
    }
    memset(&a, 0, sizeof a);
    a.family = VSOCK;
    a.port = UINT32_MAX; // any
    a.cid = CID_LOCAL;
    CHECK_OK(netio_addr_from_sockaddr(&at, &a, sizeof a));
    CHECK_EQ(-VSOCK, netio_addr_family(&at));
    // Under every poller, whether this machine can talk to itself by it or not.
    for (int b = NETIO_BACKEND_SELECT; b <= NETIO_BACKEND_IOURING; b++) {
        netio_poller *p;
        if (!netio_backend_available(b)) continue;
        CHECK_OK(netio_poller_open(&p, b));
        CHECK_OK(netio_poller_add(p, listener, NETIO_EV_READ, NULL));
        CHECK(netio_poller_wait(p, &(netio_event){0}, 1, 0) >= 0);
        CHECK_OK(netio_poller_remove(p, listener));
        netio_poller_close(p);
    }
    if (os_bind(listener, &at) != 0 || listen(listener, 4) != 0 ||
        getsockname(listener, (struct sockaddr *)&a, &len) != 0 ||
        netio_open(&client, VSOCK, SOCK_STREAM, 0) < 0) {
        CHECK_OK(netio_close(&listener));
        SKIP("opened and polled, but this machine has no loopback of it");
    }
    err = connect(client, (const struct sockaddr *)&a, sizeof a);
    if ((err != 0 && errno != EINPROGRESS) || netio_connect_finish(client, 2000) < 0) {
        CHECK_OK(netio_close(&client));
        CHECK_OK(netio_close(&listener));
        SKIP("opened and polled, but this machine has no loopback of it");
    }
    CHECK_OK(netio_accept(&server, listener, &at, 5000));
    CHECK_EQ(-VSOCK, netio_addr_family(&at));
    CHECK_OK(netio_send_all(client, "vsock", 5, NULL, 1000));
    CHECK_OK(netio_recv_exact(server, buf, 5, NULL, 5000));
    CHECK_MEM("vsock", buf, 5);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}

TEST(diag, sctp_by_number)
{
    enum { SCTP = 132 };
    netio_socket listener, client, server;
    netio_addr a;
    size_t len;
    const void *raw;
    char buf[8];
    int err = netio_open(&listener, AF_INET, SOCK_STREAM, SCTP);
    if (err < 0) {
        CHECK_ERR(NETIO_ENOTSUP, err);
        SKIP("not in this kernel, and netio says so");
    }
    loopback(&a, 0);
    CHECK_EQ(0, os_bind(listener, &a));
    CHECK_EQ(0, listen(listener, 4));
    CHECK_OK(netio_local_addr(listener, &a));
    CHECK_OK(netio_open(&client, AF_INET, SOCK_STREAM, SCTP));
    raw = netio_addr_sockaddr(&a, &len);
    CHECK(connect(client, (const struct sockaddr *)raw, (socklen_t)len) == 0 ||
          errno == EINPROGRESS);
    CHECK_OK(netio_connect_finish(client, 5000));
    CHECK_OK(netio_accept(&server, listener, NULL, 5000));
    CHECK_OK(netio_send_all(client, "sctp", 4, NULL, 1000));
    CHECK_OK(netio_recv_exact(server, buf, 4, NULL, 5000));
    CHECK_OK(netio_send_all(server, buf, 4, NULL, 1000));
    CHECK_OK(netio_recv_exact(client, buf, 4, NULL, 5000));
    CHECK_MEM("sctp", buf, 4);
    CHECK_OK(netio_close(&client));
    CHECK_OK(netio_close(&server));
    CHECK_OK(netio_close(&listener));
}
#else
static void refused_here(int family, int type, int protocol)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    int err = netio_open(&s, family, type, protocol);
    if (err == 0) CHECK_OK(netio_close(&s));
    else CHECK(err == NETIO_EAFNOSUPPORT || err == NETIO_ENOTSUP || err == NETIO_EACCES);
    SKIP("Linux's; here it is %s", err ? netio_errname(err) : "something else");
}
TEST(diag, netlink_by_number) { refused_here(16, SOCK_RAW, 0); }
TEST(diag, a_capture_of_our_own_datagram) { refused_here(17, SOCK_RAW, 0); }
TEST(diag, a_capture_under_every_poller) { refused_here(17, SOCK_RAW, 0); }
TEST(diag, udp_lite_by_number) { refused_here(AF_INET, SOCK_DGRAM, 136); }
TEST(diag, vsock_by_number) { refused_here(40, SOCK_STREAM, 0); }
TEST(diag, sctp_by_number) { refused_here(AF_INET, SOCK_STREAM, 132); }
#endif

//================================================================================================

// clang-format off
TEST_MAIN("diag",
    T(diag, all_eleven_states_have_their_names),
    T(diag, states_from_listen_to_the_end_of_a_connection),
    T(diag, a_connection_that_is_not_answered_is_syn_sent),
    T(diag, the_rarer_states_of_an_end_that_is_stuck),
    T(diag, figures_of_an_exchange),
    T(diag, what_is_on_the_way_is_counted),
    T(diag, no_tcp_no_figures),
    T(diag, bytes_that_wait_on_other_sockets),
    T(diag, a_listeners_congestion_control_is_inherited),
    T(diag, presets_say_what_the_manual_says),
    T(diag, presets_set_what_they_say_and_nothing_else),
    T(diag, presets_go_with_the_making_of_sockets),
    T(diag, settings_are_applied_in_order_and_what_lacks_is_skipped),
    T(diag, the_loopback_interface_is_among_them),
    T(diag, their_number_is_told_even_if_they_do_not_fit),
    T(diag, they_are_those_of_getifaddrs),
    T(diag, they_are_those_that_ip_prints),
    T(diag, an_interface_goes_by_name_number_and_address),
    T(diag, no_addresses_and_hundreds_of_them),
    T(diag, a_socket_of_a_device_hears_that_device_alone),
    T(diag, the_internet_checksum),
    T(diag, hex_dumps_letter_by_letter),
    T(diag, a_hex_dump_that_does_not_fit_is_cut_and_terminated),
    T(diag, offsets_of_a_hex_dump_get_wider_when_they_must),
    T(diag, text_is_told_from_bytes),
    T(diag, unknown_numbers_are_refused_by_name),
    T(diag, a_raw_echo_is_answered),
    T(diag, a_hand_made_header_goes_as_it_is),
    T(diag, an_icmpv6_echo_is_answered),
    T(diag, without_rights_raw_is_eacces),
    T(diag, an_echo_without_rights_where_the_group_may),
    T(diag, netlink_by_number),
    T(diag, a_capture_of_our_own_datagram),
    T(diag, a_capture_under_every_poller),
    T(diag, udp_lite_by_number),
    T(diag, vsock_by_number),
    T(diag, sctp_by_number))
