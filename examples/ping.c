// ping, and a viewer of packets.
//
//     ping [-4] [-6] [-c N] [-i MS] [-w MS] [-x] [-H] HOST
//     ping --capture IF [-c N] [--pcap FILE]        Linux
//
//     -c  how many (default 4)        -x  show the bytes of each answer
//     -i  pause between two (1000)    -H  by a raw socket, with an IPv4 header made by hand
//     -w  wait for an answer (1000)
//     --capture  show every packet of an interface, until -c or Ctrl-C; --pcap: and write them to a
//                file that tcpdump -r and Wireshark open
//
// Echo requests need a socket that most systems do not give to everybody. An ICMP datagram socket
// needs no rights on macOS, and on Linux if net.ipv4.ping_group_range has one of our groups; else a
// raw socket does it, for root. Windows gives raw sockets to administrators only.
//
// Exit code 0; 1 if nobody answered; 2 if it could not be tried.
//
// Build  cc ping.c -o ping           (Windows: add -lws2_32)
// Try    ./ping localhost            sudo ./ping --capture lo --pcap lo.pcap
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ECHO_BYTES = 64, FRAME_MAX = 1 << 18 };

static struct {
    const char *host, *capture, *pcap;
    long count, pause_ms, wait_ms, family;
    bool dump, header;
} opt = {.count = -1, .pause_ms = 1000, .wait_ms = 1000};

static netio_poller *poller;
static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
    netio_poller_wake(poller);
}

// Wait until the socket is readable, the time is over or a signal came. False: it is not readable.
static bool await(int64_t by)
{
    netio_event event;
    while (!stopping) {
        ptrdiff_t n = netio_poller_wait(poller, &event, 1, netio_deadline_left(by));
        if (n != 0) return n > 0;
        if (netio_deadline_left(by) == 0) break;
    }
    return false;
}

static int complain(const char *what, ptrdiff_t err)
{
    fprintf(stderr, "ping: %s: %s\n", what, netio_strerror(err));
    return 2;
}

static unsigned get16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }

static void put16(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void hexdump(const void *data, size_t len)
{
    static char text[FRAME_MAX / 16 * 80];
    netio_hexdump(text, sizeof text, data, len);
    fputs(text, stdout);
}

//------------------------------------------------------------------------------------------------
// ping
//------------------------------------------------------------------------------------------------

static netio_addr target;
static bool raw;
static uint32_t run; // tells our echoes from those of others: raw sockets hear everybody's

static int open_icmp(netio_socket *s)
{
    bool v4 = netio_addr_family(&target) == NETIO_IPV4;
    int family = v4 ? AF_INET : AF_INET6, protocol = v4 ? (int)IPPROTO_ICMP : (int)IPPROTO_ICMPV6;
    int err = opt.header ? (int)NETIO_ENOTSUP : netio_open(s, family, SOCK_DGRAM, protocol);
    if (err < 0) {
        raw = true;
        err = netio_open(s, family, SOCK_RAW, protocol);
    }
    if (err == 0 && opt.header) err = netio_set_option(*s, NETIO_OPT_HDRINCL, 1);
    if (err == 0) netio_set_option(*s, NETIO_OPT_RECV_TTL, 1); // if the system tells it
    if (err != NETIO_EACCES) return err;
    fprintf(
        stderr,
        "ping: no permission: this user may open neither an ICMP datagram socket nor a raw one.\n"
        "  Linux    sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'  (everybody), or\n"
        "           sudo setcap cap_net_raw+ep ./ping                        (this program)\n"
        "  Windows  run it as administrator, or use the system's own ping\n");
    return err;
}

static size_t make_request(uint8_t *packet, unsigned number)
{
    bool v4 = netio_addr_family(&target) == NETIO_IPV4;
    uint8_t *icmp = packet + (opt.header ? 20 : 0);
    memset(packet, 0, 20 + ECHO_BYTES);
    if (opt.header) { // the kernel fills in what is 0: our address, checksum, identification
        packet[0] = 0x45;
        put16(packet + 2, 20 + ECHO_BYTES);
        packet[8] = 64;
        packet[9] = 1;
        memcpy(packet + 16, netio_addr_ip(&target).data, 4);
    }
    icmp[0] = v4 ? 8 : 128;
    put16(icmp + 4, run & 0xFFFF); // a datagram socket of Linux puts a number of its own here
    put16(icmp + 6, number);
    memcpy(icmp + 8, &run, sizeof run);
    for (int i = 12; i < ECHO_BYTES; i++) icmp[i] = (uint8_t)i;
    if (v4) put16(icmp + 2, netio_checksum_inet(icmp, ECHO_BYTES)); // the kernel does it for IPv6
    return (size_t)(icmp - packet) + ECHO_BYTES;
}

// The ICMP message in what came: raw IPv4 sockets, and macOS's datagram ones, have the header too.
static const uint8_t *find_icmp(const netio_datagram *m, size_t *len)
{
    const uint8_t *p = m->data;
    bool v4 = netio_addr_family(&target) == NETIO_IPV4;
    size_t head = v4 && m->len >= 20 && p[0] >> 4 == 4 ? 4u * (p[0] & 15) : 0;
    if (head > m->len) head = m->len;
    *len = m->len - head;
    if (v4 && netio_checksum_inet(p + head, *len) != 0) *len = 0; // damaged on its way
    return p + head;
}

// 0: not for us. Else it says something of our request: 1 the answer, 2 an error of some router.
static int judge(const netio_datagram *m, unsigned number)
{
    bool v4 = netio_addr_family(&target) == NETIO_IPV4;
    size_t len, inner = v4 ? 28 : 48; // an error holds the packet that it is about
    const uint8_t *icmp = find_icmp(m, &len);
    if (len >= ECHO_BYTES && icmp[0] == (v4 ? 0 : 129))
        return get16(icmp + 6) == number && memcmp(icmp + 8, &run, sizeof run) == 0;
    if (len < inner + 8 || !(v4 ? icmp[0] == 3 || icmp[0] == 11 : icmp[0] == 1 || icmp[0] == 3))
        return 0;
    bool ours = get16(icmp + inner + 4) == (run & 0xFFFF) && get16(icmp + inner + 6) == number;
    return ours ? 2 : 0;
}

static void show_answer(const netio_datagram *m, int verdict, unsigned number, uint64_t us)
{
    char from[NETIO_ADDR_TEXT] = "?";
    size_t len;
    const uint8_t *icmp = find_icmp(m, &len);
    netio_addr_format_host(&m->peer, from, sizeof from);
    if (verdict == 1) {
        printf("%d bytes from %s: number %u, ", (int)len, from, number);
        if (m->ttl) printf("hops left %d, ", m->ttl);
        printf("%.3f ms\n", (double)us / 1000);
    } else {
        printf("%s says: number %u did not arrive (ICMP type %d, code %d)\n", from, number, icmp[0],
               icmp[1]);
    }
    if (opt.dump) hexdump(m->data, m->len);
    fflush(stdout);
}

// One request, and what comes until its answer. Returns microseconds; 0: no answer.
static uint64_t ping_once(netio_socket s, unsigned number)
{
    static uint8_t packet[20 + ECHO_BYTES], room[2048];
    netio_datagram m = {0};
    size_t len = make_request(packet, number);
    int64_t by = netio_deadline((int)opt.wait_ms);
    uint64_t start = netio_now_us();
    ptrdiff_t n = raw ? netio_sendto(s, packet, len, &target, 0) : netio_send(s, packet, len, 0);
    if (n >= 0) n = netio_poller_modify(poller, s, NETIO_EV_READ, NULL);
    while (n >= 0 && await(by)) {
        m.data = room;
        m.cap = sizeof room;
        n = netio_recv_batch(s, &m, 1, 0);
        uint64_t us = netio_now_us() - start;
        int verdict = n == 1 ? judge(&m, number) : 0;
        if (verdict) show_answer(&m, verdict, number, us);
        if (verdict) return verdict == 1 ? (us ? us : 1) : 0;
        if (n == NETIO_EAGAIN) n = 0;
    }
    if (!stopping) printf("number %u: %s\n", number, netio_strerror(n < 0 ? n : NETIO_ETIMEDOUT));
    fflush(stdout);
    return 0;
}

static int ping(void)
{
    char text[NETIO_ADDR_TEXT];
    netio_socket s;
    uint64_t min = UINT64_MAX, max = 0, sum = 0, received = 0, sent = 0;
    netio_resolve_opts how = {.family = opt.header ? NETIO_IPV4 : (int)opt.family};

    snprintf(text, sizeof text, strchr(opt.host, ':') ? "[%s]:0" : "%s:0", opt.host);
    ptrdiff_t err = netio_resolve(text, &target, 1, &how, 5000);
    if (err > 0) err = open_icmp(&s);
    if (err == NETIO_EACCES) return 2; // was explained
    if (err < 0) return complain(opt.host, err);
    // A connected ICMP socket hears of unreachable hosts, and of nobody else.
    size_t len;
    const struct sockaddr *peer = netio_addr_sockaddr(&target, &len);
    if (!raw && connect(s, peer, (socklen_t)len) < 0)
        return complain(opt.host, netio_error_from_os(netio_os_error()));
    err = netio_poller_add(poller, s, 0, NULL);
    if (err < 0) return complain("poller", err);

    run = (uint32_t)(netio_now_us() * 2654435761u);
    netio_addr_format_host(&target, text, sizeof text);
    printf("ping %s by %s\n", text, raw ? "a raw socket" : "an ICMP datagram socket");
    while (!stopping && (opt.count == 0 || (long)sent < opt.count)) {
        // What comes during the pause waits, or a busy network would end it again and again.
        netio_poller_modify(poller, s, 0, NULL);
        await(netio_deadline(sent ? (int)opt.pause_ms : 0));
        if (stopping) break;
        uint64_t us = ping_once(s, (unsigned)++sent & 0xFFFF);
        if (!us) continue;
        received++;
        sum += us;
        if (us < min) min = us;
        if (us > max) max = us;
    }
    printf("%llu sent, %llu received", (unsigned long long)sent, (unsigned long long)received);
    if (received)
        printf("; round trip min %.3f, average %.3f, max %.3f ms", (double)min / 1000,
               (double)sum / 1000 / (double)received, (double)max / 1000);
    printf("\n");
    netio_close(&s);
    return received ? 0 : 1;
}

//------------------------------------------------------------------------------------------------
// Capture
//------------------------------------------------------------------------------------------------

#if defined(__linux__)
#include <netpacket/packet.h>

// What is in a packet. Every length in it was written by a stranger: none is believed.
static void show_address(const char *before, const uint8_t *ip, size_t ip_len, int port)
{
    char text[NETIO_ADDR_TEXT] = "";
    netio_addr a;
    netio_addr_from_ip(&a, ip, ip_len, (uint16_t)(port < 0 ? 0 : port));
    if (port < 0) netio_addr_format_host(&a, text, sizeof text);
    else netio_addr_format(&a, text, sizeof text);
    printf("%s%s", before, text);
}

static void show_tcp(const uint8_t *p, size_t len)
{
    static const char flags[] = "FSRPAUEC";
    if (len < 20) return;
    printf(" TCP ");
    for (int i = 0; flags[i]; i++)
        if (p[13] >> i & 1) putchar(flags[i]);
    printf(" seq %lu ack %lu window %u", (unsigned long)get16(p + 4) << 16 | get16(p + 6),
           (unsigned long)get16(p + 8) << 16 | get16(p + 10), get16(p + 14));
}

static void show_ip(const uint8_t *p, size_t len)
{
    bool v4 = len >= 20 && p[0] >> 4 == 4, v6 = len >= 40 && p[0] >> 4 == 6;
    size_t head = v4 ? 4u * (p[0] & 15) : 40, ip_len = v4 ? 4 : 16;
    const uint8_t *from = p + (v4 ? 12 : 8), *to = from + ip_len, *body = p + head;
    if ((!v4 && !v6) || head < 20 || head > len) {
        printf(" (no IP header)");
        return;
    }
    size_t total = v4 ? get16(p + 2) : 40 + get16(p + 4); // behind it, Ethernet may pad
    if (total >= head && total < len) len = total;
    int protocol = v4 ? p[9] : p[6];
    bool first = !v4 || (get16(p + 6) & 0x1FFF) == 0; // later fragments have no ports
    bool ports = (protocol == 6 || protocol == 17) && first && len >= head + 4;
    show_address(v4 ? " IPv4 " : " IPv6 ", from, ip_len, ports ? (int)get16(body) : -1);
    show_address(" > ", to, ip_len, ports ? (int)get16(body + 2) : -1);
    printf(" hops %d", v4 ? p[8] : p[7]);
    if (v4 && netio_checksum_inet(p, head) != 0) printf(" (bad header checksum)");
    if (!first) printf(" fragment at %u", 8 * (get16(p + 6) & 0x1FFF));
    else if (protocol == 17 && len >= head + 8) printf(" UDP length %u", get16(body + 4));
    else if (protocol == 6) show_tcp(body, len - head);
    else if (protocol == (v4 ? 1 : 58) && len >= head + 4)
        printf(" ICMP type %d code %d", body[0], body[1]);
    else printf(" protocol %d", protocol);
}

static void show_frame(const uint8_t *p, size_t len, bool ethernet)
{
    unsigned type = 0x0800;
    if (ethernet && len < 14) {
        printf(" (no Ethernet header)");
        return;
    }
    if (ethernet) {
        printf(" Ethernet %02x:%02x:%02x:%02x:%02x:%02x >", p[6], p[7], p[8], p[9], p[10], p[11]);
        printf(" %02x:%02x:%02x:%02x:%02x:%02x", p[0], p[1], p[2], p[3], p[4], p[5]);
        type = get16(p + 12);
    }
    if (type == 0x0800 || type == 0x86DD)
        show_ip(p + (ethernet ? 14 : 0), len - (ethernet ? 14 : 0));
    else printf(" type %04x", type);
}

enum { EVERY_PROTOCOL = 3, ETHERNET = 1, LOOPBACK = 772, LINK_ETHERNET = 1, LINK_IP = 101 };

static netio_addr link_address(unsigned index)
{
    struct sockaddr_ll where;
    netio_addr a;
    memset(&where, 0, sizeof where);
    where.sll_family = AF_PACKET;
    where.sll_protocol = htons(EVERY_PROTOCOL);
    where.sll_ifindex = (int)index;
    netio_addr_from_sockaddr(&a, &where, sizeof where);
    return a;
}

static struct sockaddr_ll link_details(const netio_addr *a)
{
    struct sockaddr_ll where;
    size_t len;
    const void *from = netio_addr_sockaddr(a, &len);
    memset(&where, 0, sizeof where);
    memcpy(&where, from, len < sizeof where ? len : sizeof where);
    return where;
}

// See the file format's description: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html
static bool pcap_begin(FILE *f, bool ethernet)
{
    uint32_t head[6] = {0xA1B2C3D4, 0, 0, 0, FRAME_MAX, ethernet ? LINK_ETHERNET : LINK_IP};
    uint16_t version[2] = {2, 4};
    memcpy(&head[1], version, 4);
    return fwrite(head, sizeof head, 1, f) == 1 && fflush(f) == 0;
}

static bool pcap_add(FILE *f, const netio_datagram *m)
{
    uint32_t head[4] = {(uint32_t)(m->time_ns / 1000000000),
                        (uint32_t)(m->time_ns / 1000 % 1000000), (uint32_t)m->len,
                        (uint32_t)m->full};
    return fwrite(head, sizeof head, 1, f) == 1 && fwrite(m->data, 1, m->len, f) == m->len &&
           fflush(f) == 0;
}

static int capture_frames(netio_socket s, FILE *file, bool ethernet)
{
    static uint8_t room[FRAME_MAX];
    unsigned long count = 0;
    ptrdiff_t n = 0;
    while ((opt.count <= 0 || count < (unsigned long)opt.count) && await(netio_deadline(-1))) {
        netio_datagram m = {.data = room, .cap = sizeof room};
        n = netio_recv_batch(s, &m, 1, 0);
        if (n == NETIO_EAGAIN) continue;
        if (n < 0) break; // NETIO_ENETDOWN: the interface went away
        struct sockaddr_ll by = link_details(&m.peer);
        // What leaves by the loopback interface comes back at once, and is shown then.
        if (by.sll_pkttype == PACKET_OUTGOING && by.sll_hatype == LOOPBACK) continue;
        printf("%lu: %d bytes %s", ++count, (int)m.full,
               by.sll_pkttype == PACKET_OUTGOING ? "out" : "in");
        show_frame(room, m.len, ethernet);
        printf("\n");
        hexdump(room, m.len);
        fflush(stdout);
        if (file && !pcap_add(file, &m)) {
            n = NETIO_EIO;
            break;
        }
    }
    int drops;
    if (netio_get_option(s, NETIO_OPT_DROPS, &drops) < 0) printf("%lu packets\n", count);
    else printf("%lu packets, %d dropped by the kernel\n", count, drops);
    return n < 0 && n != NETIO_EAGAIN ? complain(n == NETIO_EIO ? opt.pcap : opt.capture, n) : 0;
}

static int capture(void)
{
    netio_socket s;
    unsigned index = netio_interface_index(opt.capture);
    if (!index) return complain(opt.capture, NETIO_ENODEV);
    // Protocol 0 hears nothing until it is bound, so no other interface's packets get in.
    int err = netio_open(&s, AF_PACKET, SOCK_RAW, 0);
    if (err == NETIO_EACCES) {
        fprintf(stderr, "ping: no permission to capture: it takes root, or cap_net_raw\n");
        return 2;
    }
    if (err < 0) return complain(opt.capture, err);
    netio_addr where = link_address(index);
    size_t len;
    const struct sockaddr *local = netio_addr_sockaddr(&where, &len);
    if (bind(s, local, (socklen_t)len) < 0) err = netio_error_from_os(netio_os_error());
    if (err == 0) err = netio_local_addr(s, &where);
    int on = 1; // when the kernel saw it
    if (err == 0) err = netio_set_option_raw(s, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (err == 0) err = netio_poller_add(poller, s, NETIO_EV_READ, NULL);
    if (err < 0) return complain(opt.capture, err);

    int link = link_details(&where).sll_hatype; // tunnels have no header before that of IP
    bool ethernet = link == ETHERNET || link == LOOPBACK;
    FILE *file = opt.pcap ? fopen(opt.pcap, "wb") : NULL;
    if (opt.pcap && (!file || !pcap_begin(file, ethernet))) return complain(opt.pcap, NETIO_EIO);
    printf("listening on %s\n", opt.capture);
    fflush(stdout);
    int code = capture_frames(s, file, ethernet);
    if (file) fclose(file);
    netio_close(&s);
    return code;
}
#else
static int capture(void)
{
    fprintf(stderr, "ping: capturing is for Linux here; elsewhere use tcpdump or Wireshark\n");
    return complain(opt.capture, NETIO_ENOTSUP);
}
#endif

static bool parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = argv[i + 1];
        char *end = NULL;
        long *number = strcmp(word, "-c") == 0   ? &opt.count
                       : strcmp(word, "-i") == 0 ? &opt.pause_ms
                       : strcmp(word, "-w") == 0 ? &opt.wait_ms
                                                 : NULL;
        const char **text = strcmp(word, "--capture") == 0 ? &opt.capture
                            : strcmp(word, "--pcap") == 0  ? &opt.pcap
                                                           : NULL;
        if (strcmp(word, "-x") == 0) opt.dump = true;
        else if (strcmp(word, "-H") == 0) opt.header = true;
        else if (strcmp(word, "-4") == 0) opt.family = NETIO_IPV4;
        else if (strcmp(word, "-6") == 0) opt.family = NETIO_IPV6;
        else if (!number && !text && (word[0] == '-' || opt.host)) return false;
        else if (!number && !text) opt.host = word;
        else if (!value) return false;
        else i++;
        if (text) *text = value;
        if (!number) continue;
        *number = strtol(value, &end, 10);
        if (end == value || *end || *number < 0 || *number > 1000000) return false;
    }
    if (opt.count < 0) opt.count = opt.capture ? 0 : 4;
    return !opt.host != !opt.capture && (opt.capture || !opt.pcap);
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: ping [-46xH] [-c N] [-i MS] [-w MS] HOST\n"
                        "       ping --capture IF [-c N] [--pcap FILE]\n");
        return 2;
    }
    int err = netio_poller_open(&poller, NETIO_BACKEND_AUTO);
    if (err < 0) return complain("poller", err);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    int code = opt.capture ? capture() : ping();
    netio_poller_close(poller);
    return code;
}
