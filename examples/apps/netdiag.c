// Why can I not connect? Looks up the name, tries every address, races them as an application does,
// asks TCP and the peer, and says in words what is wrong.
//
//     netdiag [-4] [-6] [--tls] [--plain] [--timeout MS] HOST:PORT
//     netdiag interfaces       the addresses of this machine
//     netdiag supports         options, backends and kinds of sockets that this system has
//
//     --tls, --plain   what you expect there; else some well-known ports decide. It is tried with a
//                      TLS greeting; where nothing is expected, nothing is said
//     -4, -6           you want this family; the other one is tried all the same, to compare
//     --timeout        for each step; default 5000
//
// The verdict is the last line, and the exit code:
//      0 reachable       4 unreachable      8 TLS on a plain port
//      1 refused         5 wrong family     9 plain on a TLS port
//      2 (bad usage)     6 no such name    10 hangs up
//      3 filtered        7 no lookup       11 unknown
// What could not be tried, for lack of rights or because it says nothing for sure, is unknown.
//
// Build  cc netdiag.c -o netdiag           (Windows: add -lws2_32)
// Try    ./netdiag localhost:22
#define NETIO_IMPLEMENTATION
#include "../../netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
enum { REACHABLE, REFUSED, USAGE, FILTERED, UNREACHABLE, WRONG_FAMILY, NO_NAME, NO_LOOKUP,
       TLS_ON_PLAIN, PLAIN_ON_TLS, HANGS_UP, UNKNOWN };

static const char *const verdicts[] = {
    "reachable", "refused", "usage", "filtered", "unreachable", "wrong family", "no such name",
    "no lookup", "TLS on a plain port", "plain on a TLS port", "hangs up", "unknown"};
// clang-format on

static struct {
    const char *target;
    int family, timeout_ms;
    bool tls, plain;
} opt = {.timeout_ms = 5000};

typedef struct probe {
    netio_addr addr;
    netio_socket s;
    int err, ms;
    bool wanted; // false: only to compare
} probe;

static probe probes[NETIO_RESOLVE_MAX + 1];
static size_t probe_count;

static int say(int verdict, const char *why)
{
    printf("verdict: %s - %s\n", verdicts[verdict], why);
    return verdict;
}

static const char *text_of(const netio_addr *a)
{
    static char text[NETIO_ADDR_TEXT];
    if (netio_addr_format(a, text, sizeof text) < 0) snprintf(text, sizeof text, "?");
    return text;
}

static const char *family_name(int family) { return family == NETIO_IPV4 ? "IPv4" : "IPv6"; }

//------------------------------------------------------------------------------------------------
// The name
//------------------------------------------------------------------------------------------------

static void show_reverse(const netio_addr *a)
{
    char name[256];
    int len =
        netio_resolve_reverse(a, name, sizeof name, opt.timeout_ms < 2000 ? opt.timeout_ms : 2000);
    if (len >= 0) printf(", named %s", name);
    else if (len == NETIO_EAI_NONAME) printf(", without a name");
    else printf(", name unknown (%s)", netio_strerror(len));
}

static void add_probe(const netio_addr *a)
{
    int family = netio_addr_family(a);
    probe *p = &probes[probe_count++];
    p->addr = *a;
    p->s = NETIO_INVALID_SOCKET;
    p->wanted = !opt.family || family == opt.family || family == NETIO_UNIX;
}

// Fills probes. Returns REACHABLE, or the verdict if there is nothing to try.
static int look_up(void)
{
    netio_addr found[NETIO_RESOLVE_MAX], other;
    uint64_t start = netio_now_ms();
    ptrdiff_t n = netio_resolve(opt.target, found, NETIO_RESOLVE_MAX, NULL, opt.timeout_ms);
    if (n == NETIO_EINVAL || n == NETIO_ENOENT || n == NETIO_ENAMETOOLONG || n == NETIO_ENODEV) {
        fprintf(stderr, "netdiag: %s: %s\n", opt.target, netio_strerror(n));
        return USAGE;
    }
    printf("name      %s: ", opt.target);
    if (n < 0) printf("%s\n", netio_strerror(n));
    if (n == NETIO_EAI_NONAME) return say(NO_NAME, "it does not exist, or has no address");
    if (n == NETIO_EAI_AGAIN || n == NETIO_ETIMEDOUT)
        return say(NO_LOOKUP, "the name servers do not answer: see whether this machine is online");
    if (n < 0) return say(UNKNOWN, "the name could not be looked up here");
    printf("%d address%s, %d ms\n", (int)n, n == 1 ? "" : "es", (int)(netio_now_ms() - start));
    for (ptrdiff_t i = 0; i < n; i++) add_probe(&found[i]);
    // Whoever wrote ::1 may mean what listens on 127.0.0.1. Of other literals nothing is known.
    if (n == 1 && (netio_addr_class(&found[0]) & NETIO_ADDR_LOOPBACK)) {
        int family = netio_addr_family(&found[0]);
        netio_addr_loopback(&other, family == NETIO_IPV4 ? NETIO_IPV6 : NETIO_IPV4,
                            netio_addr_port(&found[0]));
        add_probe(&other);
        probes[1].wanted = false;
        probes[0].wanted = !opt.family || opt.family == family;
    }
    return REACHABLE;
}

//------------------------------------------------------------------------------------------------
// Every address, all at once
//------------------------------------------------------------------------------------------------

static int meaning(int err)
{
    switch (err) {
    case 0: return REACHABLE;
    case NETIO_ECONNREFUSED: return REFUSED;
    case NETIO_ENOENT: return REFUSED; // a socket file that is not there
    case NETIO_ETIMEDOUT: return FILTERED;
    case NETIO_EHOSTUNREACH:
    case NETIO_ENETUNREACH:
    case NETIO_ENETDOWN:
    case NETIO_EADDRNOTAVAIL:
    case NETIO_EAFNOSUPPORT: return UNREACHABLE;
    case NETIO_ECONNRESET:
    case NETIO_ECONNABORTED: return HANGS_UP;
    default: return UNKNOWN; // NETIO_EACCES: our own firewall; NETIO_EMFILE: our own limits
    }
}

static int start_probes(netio_poller *poller)
{
    int waiting = 0;
    for (size_t i = 0; i < probe_count; i++) {
        probe *p = &probes[i];
        p->err = netio_connect_start(&p->s, &p->addr, NULL);
        if (p->err != NETIO_EINPROGRESS) continue;
        p->err = netio_poller_add(poller, p->s, NETIO_EV_WRITE, p);
        if (p->err < 0) continue;
        p->err = NETIO_ETIMEDOUT;
        p->ms = opt.timeout_ms;
        waiting++;
    }
    return waiting;
}

static int try_all(void)
{
    netio_poller *poller;
    netio_event events[NETIO_RESOLVE_MAX + 1];
    int err = netio_poller_open(&poller, NETIO_BACKEND_AUTO);
    if (err < 0) return err;
    uint64_t start = netio_now_ms();
    int64_t by = netio_deadline(opt.timeout_ms);
    int waiting = start_probes(poller);
    while (waiting > 0) {
        ptrdiff_t n = netio_poller_wait(poller, events, probe_count, netio_deadline_left(by));
        if (n <= 0 && netio_deadline_left(by) == 0) break;
        for (ptrdiff_t i = 0; i < n; i++) {
            probe *p = events[i].user;
            int result = netio_connect_finish(p->s, 0);
            if (result == NETIO_EAGAIN) continue;
            p->err = result;
            p->ms = (int)(netio_now_ms() - start);
            netio_poller_remove(poller, p->s);
            waiting--;
        }
    }
    netio_poller_close(poller);
    return 0;
}

static void show_all(void)
{
    for (size_t i = 0; i < probe_count; i++) {
        probe *p = &probes[i];
        printf("address   %s: %s, %d ms", text_of(&p->addr),
               p->err ? netio_strerror(p->err) : "connected", p->ms);
        if (i < 4 && netio_addr_ip(&p->addr).len) show_reverse(&p->addr);
        printf("%s\n", p->wanted ? "" : " (to compare)");
        netio_close(&p->s);
    }
}

// Of several failures the one that says most.
static int most_telling(bool wanted, int family)
{
    static const int order[] = {REACHABLE, HANGS_UP, REFUSED, FILTERED, UNREACHABLE, UNKNOWN};
    for (size_t k = 0; k < sizeof order / sizeof order[0]; k++)
        for (size_t i = 0; i < probe_count; i++)
            if (probes[i].wanted == wanted && meaning(probes[i].err) == order[k] &&
                (!family || netio_addr_family(&probes[i].addr) == family))
                return order[k];
    return -1; // there is none
}

//------------------------------------------------------------------------------------------------
// Is the host there at all? Ping, if we may.
//------------------------------------------------------------------------------------------------

static int open_ping(netio_socket *s, int family)
{
    int os = family == NETIO_IPV4 ? AF_INET : AF_INET6;
    int protocol = family == NETIO_IPV4 ? (int)IPPROTO_ICMP : (int)IPPROTO_ICMPV6;
    int err = netio_open(s, os, SOCK_DGRAM, protocol);
    return err < 0 ? netio_open(s, os, SOCK_RAW, protocol) : err;
}

static int ping(const netio_addr *to)
{
    uint8_t packet[16] = {0}, got[256];
    bool v4 = netio_addr_family(to) == NETIO_IPV4;
    uint32_t token = (uint32_t)(netio_now_us() * 2654435761u);
    netio_addr peer = *to, from;
    netio_socket s;
    int err = open_ping(&s, netio_addr_family(to));
    if (err < 0) return err;
    packet[0] = v4 ? 8 : 128;
    memcpy(packet + 4, &token, 4); // identification and number
    memcpy(packet + 8, &token, 4);
    uint16_t sum = netio_checksum_inet(packet, sizeof packet);
    packet[2] = (uint8_t)(sum >> 8);
    packet[3] = (uint8_t)sum;
    netio_addr_set_port(&peer, 0);
    int64_t by = netio_deadline(2000);
    ptrdiff_t n = netio_sendto(s, packet, sizeof packet, &peer, 0);
    while (n >= 0) {
        n = netio_recvfrom(s, got, sizeof got, &from, netio_deadline_left(by));
        size_t head = v4 && n >= 20 && got[0] >> 4 == 4 ? 4u * (got[0] & 15) : 0;
        if (n >= (ptrdiff_t)head + 12 && n <= (ptrdiff_t)sizeof got &&
            got[head] == (v4 ? 0 : 129) && memcmp(got + head + 8, &token, 4) == 0 &&
            netio_addr_equal_host(&from, &peer))
            break;
    }
    netio_close(&s);
    return n < 0 ? (int)n : 0;
}

static void show_ping(const netio_addr *to)
{
    if (!netio_addr_ip(to).len) return;
    int err = ping(to);
    if (err == 0) printf("ping      the host answers: it is up\n");
    else if (err == NETIO_ETIMEDOUT || err == NETIO_EAGAIN)
        printf("ping      no answer, which proves nothing\n");
    else if (err == NETIO_EACCES) printf("ping      unknown: no permission for ICMP sockets\n");
    else printf("ping      unknown: %s\n", netio_strerror(err));
}

//------------------------------------------------------------------------------------------------
// What speaks there?
//------------------------------------------------------------------------------------------------

enum { SPEAKS_NOTHING, SPEAKS_PLAIN, SPEAKS_TLS, SPEAKS_UP /*hung up*/ };

// A greeting that every TLS server from 1.0 to 1.3 answers, if only with an alert: versions up to
// 1.2, common suites, and the extensions that they need (RFC 5246 7.4.1, RFC 8422).
// clang-format off
static const uint8_t client_hello[] = {
    22, 3, 1, 0, 79,                            // record: handshake, 79 bytes
    1, 0, 0, 75, 3, 3,                          // ClientHello, TLS 1.2
    'n', 'e', 't', 'd', 'i', 'a', 'g', ' ', 'a', 's', 'k', 's', ':', ' ', 'd', 'o', // "random"
    ' ', 'y', 'o', 'u', ' ', 's', 'p', 'e', 'a', 'k', ' ', 'T', 'L', 'S', ' ', '?',
    0, 0, 10,                                   // no session; five suites:
    0xC0, 0x2F, 0xC0, 0x2B, 0xC0, 0x30, 0, 0x9C, 0, 0x2F, // ECDHE and RSA with AES
    1, 0, 0, 24,                                // no compression; extensions:
    0, 10, 0, 6, 0, 4, 0, 29, 0, 23,            // groups x25519, P-256
    0, 13, 0, 10, 0, 8, 4, 1, 4, 3, 8, 4, 2, 1}; // signatures
// clang-format on

static bool is_listed(const int *ports, size_t count, int port)
{
    for (size_t i = 0; i < count; i++)
        if (ports[i] == port) return true;
    return false;
}

static void expect_by_port(int port)
{
    static const int tls[] = {443, 465, 563, 636,  853,  989,  990,
                              992, 993, 995, 5061, 5671, 8443, 8883};
    static const int plain[] = {21, 23, 25, 80, 110, 119, 143, 389, 1883, 5060, 5672, 8080};
    if (opt.tls || opt.plain) return;
    opt.tls = is_listed(tls, sizeof tls / sizeof tls[0], port);
    opt.plain = is_listed(plain, sizeof plain / sizeof plain[0], port);
}

static int judge_bytes(const uint8_t *got, ptrdiff_t n)
{
    if (n >= 3 && (got[0] == 21 || got[0] == 22) && got[1] == 3 && got[2] <= 4) return SPEAKS_TLS;
    return SPEAKS_PLAIN;
}

static int hear(netio_socket s, uint8_t *got, size_t cap, ptrdiff_t *n, int ms)
{
    *n = netio_recv(s, got, cap, ms);
    if (*n > 0) return judge_bytes(got, *n);
    return *n == NETIO_ETIMEDOUT ? SPEAKS_NOTHING : SPEAKS_UP;
}

// What it says first, else what it says to a TLS greeting, else to an empty line, as servers of
// plain text wait for the line's end. `asked`: it got our greeting.
static int listen_to(netio_socket s, int rtt_ms, bool *asked)
{
    uint8_t got[256];
    ptrdiff_t n;
    int speaks = hear(s, got, sizeof got, &n, 300 + 2 * rtt_ms);
    *asked = speaks == SPEAKS_NOTHING && (opt.tls || opt.plain);
    if (*asked && netio_send_all(s, client_hello, sizeof client_hello, NULL, 1000) == 0)
        speaks = hear(s, got, sizeof got, &n, 1000 + 4 * rtt_ms);
    if (*asked && speaks == SPEAKS_NOTHING && netio_send_all(s, "\r\n\r\n", 4, NULL, 1000) == 0)
        speaks = hear(s, got, sizeof got, &n, 1000 + 4 * rtt_ms);
    printf("speaks    ");
    switch (speaks) {
    case SPEAKS_NOTHING:
        printf("nothing%s", *asked ? ", not even to a TLS greeting" : " by itself");
        break;
    case SPEAKS_UP: printf("nothing: it hangs up (%s)", netio_strerror(n)); break;
    case SPEAKS_TLS: printf("TLS"); break;
    default:
        printf("plain: \"");
        for (ptrdiff_t i = 0; i < n && i < 60 && got[i] != '\r' && got[i] != '\n'; i++)
            putchar(got[i] >= 0x20 && got[i] < 0x7F ? got[i] : '.');
        putchar('"');
    }
    printf("\n");
    return speaks;
}

static void show_tcp(netio_socket s, int *rtt_ms)
{
    netio_tcp_info info;
    netio_addr local;
    int mtu, err = netio_tcp_info_get(s, &info);
    if (netio_local_addr(s, &local) == 0 && netio_addr_ip(&local).len)
        printf("from      %s\n", text_of(&local));
    if (err < 0) {
        printf("tcp       unknown: %s\n", netio_strerror(err));
        return;
    }
    *rtt_ms = (int)(info.rtt_us / 1000);
    printf("tcp       %s, round trip %.3f ms (+- %.3f), segment %u bytes, window %u segments, %u "
           "sent again\n",
           netio_tcp_state_name(info.state), (double)info.rtt_us / 1000,
           (double)info.rtt_var_us / 1000, (unsigned)info.mss, (unsigned)info.cwnd,
           (unsigned)info.retransmits);
    if (netio_get_option(s, NETIO_OPT_MTU, &mtu) == 0) printf("mtu       %d bytes\n", mtu);
}

//------------------------------------------------------------------------------------------------
// As an application would do it, and the verdict
//------------------------------------------------------------------------------------------------

static int race(netio_socket *s)
{
    netio_error errors[NETIO_RESOLVE_MAX + 1];
    netio_socket_opts how = {.family = opt.family,
                             .resolve = {.family = opt.family},
                             .errors = errors,
                             .error_cap = sizeof errors / sizeof errors[0]};
    netio_addr peer;
    uint64_t start = netio_now_ms();
    int err = netio_connect(s, opt.target, &how, opt.timeout_ms);
    if (err == 0 && netio_peer_addr(*s, &peer) == 0)
        printf("race      won by %s, %d ms\n", text_of(&peer), (int)(netio_now_ms() - start));
    if (err < 0) printf("race      lost: %s\n", errors[0].text);
    return err;
}

static int say_failure(int verdict, int err)
{
    switch (verdict) {
    case REFUSED:
        if (err == NETIO_ENOENT) return say(REFUSED, "there is no such socket file");
        return say(REFUSED, "the answer is: nothing listens there (a firewall may say so, too)");
    case FILTERED:
        return say(FILTERED, "no answer at all: a firewall drops it, or the host is off");
    case UNREACHABLE:
        return say(UNREACHABLE,
                   "no way there: no route, no such host on the network, or it is down");
    case HANGS_UP: return say(HANGS_UP, "the connection is torn down while it is made");
    default:
        printf("why       %s\n", netio_strerror(err));
        return say(UNKNOWN,
                   "this machine could not or may not try, which says nothing of the peer");
    }
}

static int say_success(netio_socket s)
{
    int rtt_ms = 0;
    bool asked;
    show_tcp(s, &rtt_ms);
    for (int family = NETIO_IPV4; family <= NETIO_IPV6; family += 2) {
        int other = family == NETIO_IPV4 ? NETIO_IPV6 : NETIO_IPV4;
        int here = most_telling(true, family);
        if (here > REACHABLE && most_telling(true, other) == REACHABLE)
            printf("note      over %s it is %s: who tries that first has to wait, or fails\n",
                   family_name(family), verdicts[here]);
    }
    int speaks = listen_to(s, rtt_ms, &asked);
    if (speaks == SPEAKS_TLS && opt.plain)
        return say(TLS_ON_PLAIN, "it speaks TLS where plain text was expected: use TLS");
    if (speaks == SPEAKS_PLAIN && opt.tls)
        return say(PLAIN_ON_TLS, "it speaks plain text where TLS was expected");
    if (speaks == SPEAKS_UP && !asked)
        return say(HANGS_UP,
                   "it takes connections and ends them: nothing behind it, or we are not let in");
    if (opt.tls && speaks != SPEAKS_TLS)
        return say(UNKNOWN, "it takes connections, but whether it speaks TLS is not to be seen");
    return say(REACHABLE, speaks == SPEAKS_TLS ? "it takes connections, and speaks TLS"
                                               : "it takes connections");
}

static int diagnose(void)
{
    netio_socket s;
    int verdict = look_up();
    if (verdict != REACHABLE) return verdict;
    int err = try_all();
    if (err < 0) return say(UNKNOWN, netio_strerror(err));
    show_all();
    expect_by_port(netio_addr_port(&probes[0].addr));

    int wanted = most_telling(true, 0), compared = most_telling(false, 0);
    if (wanted < 0)
        return say(compared == REACHABLE ? WRONG_FAMILY : UNREACHABLE,
                   "it has no address of the family that you want");
    if (wanted == REACHABLE) {
        err = race(&s);
        if (err < 0) return say_failure(meaning(err), err);
        verdict = say_success(s);
        netio_close(&s);
        return verdict;
    }
    if (compared == REACHABLE && wanted != UNKNOWN)
        return say(WRONG_FAMILY, "over the family that you want it fails, over the other it works");
    size_t first = 0;
    while (!probes[first].wanted || meaning(probes[first].err) != wanted) first++;
    if (wanted == FILTERED || wanted == UNREACHABLE) show_ping(&probes[first].addr);
    return say_failure(wanted, probes[first].err);
}

//------------------------------------------------------------------------------------------------
// What this machine has
//------------------------------------------------------------------------------------------------

static int show_interfaces(void)
{
    static netio_interface list[256];
    ptrdiff_t n = netio_interfaces(list, 256);
    if (n < 0) {
        fprintf(stderr, "netdiag: interfaces: %s\n", netio_strerror(n));
        return UNKNOWN;
    }
    for (ptrdiff_t i = 0; i < n && i < 256; i++) {
        char host[NETIO_ADDR_TEXT] = "?";
        netio_addr_format_host(&list[i].addr, host, sizeof host);
        printf("%u %s %s/%u", (unsigned)list[i].index, list[i].name, host,
               (unsigned)list[i].prefix_bits);
        if (netio_addr_family(&list[i].broadcast) &&
            netio_addr_format_host(&list[i].broadcast, host, sizeof host) > 0)
            printf(" broadcast %s", host);
        printf("%s%s%s\n", list[i].flags & NETIO_IF_UP ? " up" : " down",
               list[i].flags & NETIO_IF_LOOPBACK ? " loopback" : "",
               list[i].flags & NETIO_IF_MULTICAST ? " multicast" : "");
    }
    if (n > 256) printf("(and %d more)\n", (int)n - 256);
    return 0;
}

static void show_kind(const char *name, int err)
{
    printf("socket %s %s\n", name,
           err == 0                                            ? "yes"
           : err == NETIO_ENOTSUP || err == NETIO_EAFNOSUPPORT ? "no"
           : err == NETIO_EACCES                               ? "unknown: no permission"
                                                               : netio_strerror(err));
}

static int try_bind(const char *address)
{
    netio_socket s;
    int err = netio_bind(&s, address, NULL);
    if (err == 0) netio_close(&s);
    return err == NETIO_EADDRNOTAVAIL ? (int)NETIO_EAFNOSUPPORT : err;
}

static int try_pair(int type)
{
    netio_socket two[2];
    int err = netio_pair(two, type);
    if (err == 0) netio_close(&two[0]);
    if (err == 0) netio_close(&two[1]);
    return err;
}

static int try_open(int family, int type, int protocol)
{
    netio_socket s;
    int err = netio_open(&s, family, type, protocol);
    if (err == 0) netio_close(&s);
    return err;
}

static int show_supports(void)
{
    for (int i = 1; i <= NETIO_OPT_DROPS; i++)
        if (netio_option_name(i)[0])
            printf("option %s %s\n", netio_option_name(i),
                   netio_option_supported(i) ? "yes" : "no");
    for (int i = NETIO_BACKEND_AUTO + 1; i <= NETIO_BACKEND_IOURING; i++)
        printf("backend %s %s\n", netio_backend_name(i), netio_backend_available(i) ? "yes" : "no");
    show_kind("IPv4", try_bind("127.0.0.1:0"));
    show_kind("IPv6", try_bind("[::1]:0"));
    show_kind("pair-stream", try_pair(NETIO_STREAM));
    show_kind("pair-datagram", try_pair(NETIO_DGRAM));
    show_kind("pair-seqpacket", try_pair(NETIO_SEQPACKET));
    show_kind("icmp-datagram", try_open(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
    show_kind("icmp-raw", try_open(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    show_kind("sctp", try_open(AF_INET, SOCK_STREAM, 132));
    return 0;
}

static bool parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *end = NULL;
        if (strcmp(argv[i], "-4") == 0) opt.family = NETIO_IPV4;
        else if (strcmp(argv[i], "-6") == 0) opt.family = NETIO_IPV6;
        else if (strcmp(argv[i], "--tls") == 0) opt.tls = true;
        else if (strcmp(argv[i], "--plain") == 0) opt.plain = true;
        else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc) {
            long ms = strtol(argv[++i], &end, 10);
            if (*end || ms < 1 || ms > 3600000) return false;
            opt.timeout_ms = (int)ms;
        } else if (argv[i][0] == '-' || opt.target) return false;
        else opt.target = argv[i];
    }
    return opt.target && !(opt.tls && opt.plain);
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: netdiag [-46] [--tls | --plain] [--timeout MS] HOST:PORT\n"
                        "       netdiag interfaces\n       netdiag supports\n");
        return USAGE;
    }
    if (strcmp(opt.target, "interfaces") == 0) return show_interfaces();
    if (strcmp(opt.target, "supports") == 0) return show_supports();
    return diagnose();
}
