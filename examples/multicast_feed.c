// A numbered multicast feed: one sender, any number of receivers, each of which sees what it lacks.
//
//     multicast_feed [OPTIONS] GROUP:PORT           print what comes; several may on one machine
//     multicast_feed --send [OPTIONS] GROUP:PORT    send each line of the input as a datagram
//
//     --if IF        by this interface: name, number, or one of its addresses; else the OS chooses
//     --source HOST  receive from this sender alone (source-specific multicast)
//     --hops N       send so far; 1 is this network alone, and the default
//     --count N      end after so many
//     --buffer N     receive buffer in bytes; default 1 MiB, for bursts
//
// A datagram is "feed", a number for this run of the sender (4 bytes), its place in the run (8) and
// the line. An empty one ends the run, so that a gap before it shows too. Networks lose datagrams,
// double and reorder them; how many our own kernel dropped, as we were slow, it says itself.
//
// Build  cc multicast_feed.c -o multicast_feed     (Windows: add -lws2_32)
// Try    ./multicast_feed 239.1.1.1:9999           in one terminal or more, and in another:
//        seq 5 | ./multicast_feed --send 239.1.1.1:9999           (IPv6: [ff02::4242%eth0]:9999)
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD = 16, ROOM = 2048, BATCH = 64 };

static struct {
    const char *group, *device, *source;
    long hops, count, buffer;
    bool send;
} opt = {.hops = 1, .buffer = 1 << 20};

static struct {
    netio_addr from; // one feed at a time, until it is silent for a second
    uint32_t run;
    uint64_t next, heard;                     // place, ms
    uint64_t received, missed, late, foreign; // datagrams
} feed;

static netio_poller *poller;
static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
    netio_poller_wake(poller);
}

static void put(uint8_t *at, uint64_t value, int bytes)
{
    while (bytes-- > 0) *at++ = (uint8_t)(value >> 8 * bytes);
}

static uint64_t get(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    while (bytes-- > 0) value = value << 8 | *at++;
    return value;
}

static int send_feed(netio_socket s, const netio_addr *group)
{
    static char packet[ROOM];
    uint64_t number = 0;
    size_t len;
    memcpy(packet, "feed", 4);
    put((uint8_t *)packet + 4, netio_now_us(), 4);
    do {
        bool more = (!opt.count || number < (uint64_t)opt.count) &&
                    fgets(packet + HEAD, 1400 - HEAD, stdin); // fits any network's packets
        len = more ? strlen(packet + HEAD) : 0;
        put((uint8_t *)packet + 8, number++, 8);
        ptrdiff_t n = netio_sendto(s, packet, HEAD + len, group, 5000);
        if (n < 0) return (int)n;
    } while (len);
    printf("sent %llu\n", (unsigned long long)number - 1);
    return 0;
}

static const char *dropped(netio_socket s)
{
    static char text[32] = "unknown here";
    int drops;
    if (netio_get_option(s, NETIO_OPT_DROPS, &drops) == 0) snprintf(text, sizeof text, "%d", drops);
    return text;
}

// Whoever knows the group may send to it, so nothing of what came is believed.
static void take(netio_socket s, const netio_datagram *m)
{
    const uint8_t *p = m->data;
    uint64_t now = netio_now_ms();
    bool ours = m->len >= HEAD && !m->truncated && memcmp(p, "feed", 4) == 0 &&
                (!m->local.len || netio_addr_class(&m->local) & NETIO_ADDR_MULTICAST);
    if (ours && (!netio_addr_equal(&m->peer, &feed.from) || get(p + 4, 4) != feed.run)) {
        ours = !feed.from.len || now - feed.heard >= 1000; // or two would look like one with gaps
        if (ours) {
            char text[NETIO_ADDR_TEXT] = "?";
            netio_addr_format(&m->peer, text, sizeof text);
            feed.from = m->peer;
            feed.run = (uint32_t)get(p + 4, 4);
            feed.next = get(p + 8, 8); // who comes late has missed nothing
            printf("feed from %s, at %llu\n", text, (unsigned long long)feed.next);
        }
    }
    if (!ours) {
        feed.foreign++;
        return;
    }
    uint64_t number = get(p + 8, 8);
    feed.heard = now;
    if (number < feed.next) {
        printf("late or again: %llu\n", (unsigned long long)number);
        feed.late++;
        return;
    }
    if (number > feed.next) {
        printf("gap: %llu to %llu are missing; dropped by the kernel so far: %s\n",
               (unsigned long long)feed.next, (unsigned long long)number - 1, dropped(s));
        feed.missed += number - feed.next;
    }
    feed.next = number + 1;
    if (m->len == HEAD) {
        printf("the feed ended\n");
        return;
    }
    feed.received++;
    if (netio_looks_like_text(p + HEAD, m->len - HEAD)) // else it may be commands to the terminal
        printf("%llu %.*s", (unsigned long long)number, (int)m->len - HEAD, (const char *)p + HEAD);
    if (p[m->len - 1] != '\n') printf("\n");
}

static int receive_feed(netio_socket s)
{
    static char rooms[BATCH][ROOM];
    netio_datagram msgs[BATCH] = {{0}};
    netio_event event;
    for (int i = 0; i < BATCH; i++) {
        msgs[i].data = rooms[i];
        msgs[i].cap = ROOM;
    }
    int err = netio_poller_add(poller, s, NETIO_EV_READ, NULL);
    while (err == 0 && !stopping && (!opt.count || feed.received < (uint64_t)opt.count)) {
        ptrdiff_t n = netio_poller_wait(poller, &event, 1, -1);
        if (n > 0) n = netio_recv_batch(s, msgs, BATCH, 0);
        if (n < 0 && n != NETIO_EAGAIN) err = (int)n;
        for (ptrdiff_t i = 0; i < n; i++) take(s, &msgs[i]);
        fflush(stdout);
    }
    printf("received %llu, missed %llu, late %llu, foreign %llu, dropped by the kernel %s\n",
           (unsigned long long)feed.received, (unsigned long long)feed.missed,
           (unsigned long long)feed.late, (unsigned long long)feed.foreign, dropped(s));
    return err;
}

// Everybody on this machine may bind the group's port, each with a socket of its own.
static int open_receiver(netio_socket *s, netio_addr *group, uint32_t ifindex)
{
    netio_socket_opts opts = {.share_group = true, .v6_only = true};
    netio_addr any, local, source;
    char text[NETIO_ADDR_TEXT];
    int err = netio_addr_any(&any, netio_addr_family(group), netio_addr_port(group));
    if (err == 0) err = netio_addr_format(&any, text, sizeof text);
    if (err >= 0) err = netio_bind(s, text, &opts);
    if (err == 0 && opt.source) {
        snprintf(text, sizeof text, strchr(opt.source, ':') ? "[%s]:0" : "%s:0", opt.source);
        err = netio_addr_parse(&source, text, strlen(text));
    }
    if (err == 0) err = netio_multicast_join(*s, group, ifindex, opt.source ? &source : NULL);
    if (err == 0) err = netio_local_addr(*s, &local);
    if (err < 0) return err;
    // The OS may give less: its limit is net.core.rmem_max on Linux. Where it cannot say to whom a
    // datagram was sent, what was sent to this machine alone counts too.
    netio_set_option(*s, NETIO_OPT_RCVBUF, (int)opt.buffer);
    netio_set_option(*s, NETIO_OPT_RECV_LOCAL, 1);
    netio_addr_set_port(group, netio_addr_port(&local));
    netio_addr_format(group, text, sizeof text);
    printf("listening on %s\n", text);
    fflush(stdout);
    return 0;
}

static int open_sender(netio_socket *s, const netio_addr *group, uint32_t ifindex)
{
    netio_socket_opts opts = {.family = netio_addr_family(group)};
    int err = netio_bind(s, NULL, &opts);
    if (err == 0) err = netio_set_option(*s, NETIO_OPT_MULTICAST_TTL, (int)opt.hops);
    if (err == 0) err = netio_set_option(*s, NETIO_OPT_MULTICAST_LOOP, 1); // to this machine, too
    if (err == 0 && ifindex) err = netio_set_option(*s, NETIO_OPT_MULTICAST_IF, (int)ifindex);
    return err;
}

static bool parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        char *end = NULL;
        long *number = strcmp(argv[i], "--hops") == 0     ? &opt.hops
                       : strcmp(argv[i], "--count") == 0  ? &opt.count
                       : strcmp(argv[i], "--buffer") == 0 ? &opt.buffer
                                                          : NULL;
        const char **text = strcmp(argv[i], "--if") == 0       ? &opt.device
                            : strcmp(argv[i], "--source") == 0 ? &opt.source
                                                               : NULL;
        if (strcmp(argv[i], "--send") == 0) opt.send = true;
        else if (!number && !text && (argv[i][0] == '-' || opt.group)) return false;
        else if (!number && !text) opt.group = argv[i];
        else if (!value) return false;
        else if (text) *text = argv[++i];
        else *number = strtol(argv[++i], &end, 10);
        if (number && (end == value || *end || *number < 0 || *number > 1 << 30)) return false;
    }
    return opt.group != NULL;
}

int main(int argc, char **argv)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    netio_addr group;
    uint32_t ifindex = 0;
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: multicast_feed [--if IF] [--source HOST] [--count N] GROUP:PORT\n"
                        "       multicast_feed --send [--if IF] [--hops N] GROUP:PORT\n");
        return 2;
    }
    int err = netio_addr_parse(&group, opt.group, strlen(opt.group));
    if (err == 0 && !(netio_addr_class(&group) & NETIO_ADDR_MULTICAST)) err = NETIO_EINVAL;
    if (err == 0 && opt.device) ifindex = netio_interface_index(opt.device);
    if (err == 0 && opt.device && !ifindex) err = NETIO_ENODEV;
    if (err == 0) err = netio_poller_open(&poller, NETIO_BACKEND_AUTO);
    if (err == 0 && !opt.send) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
    }
    if (err == 0)
        err = opt.send ? open_sender(&s, &group, ifindex) : open_receiver(&s, &group, ifindex);
    if (err == 0) err = opt.send ? send_feed(s, &group) : receive_feed(s);
    if (err < 0) fprintf(stderr, "multicast_feed: %s: %s\n", opt.group, netio_strerror(err));
    netio_close(&s); // leaves the group, too
    netio_poller_close(poller);
    return err < 0;
}
