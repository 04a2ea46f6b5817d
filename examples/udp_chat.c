// A chat over UDP through one server, for netcat: what somebody says goes to all the others.
//
//     /join NAME          the server answers "* /join NAME COOKIE"; send that, without the star
//     /who, /leave        anything else is said to the others
//
// Anybody can write a foreign address on a datagram. So the server knows nobody who did not send
// back a cookie: a keyed hash of the address and the time, which only somebody who receives there
// can know, and which takes no memory here (TCP's SYN cookies, RFC 4987, are the same idea). Until
// then it sends at most three times as many bytes as it got: it is of no use for flooding others.
//
// Nothing is encrypted: who sees the datagrams can read and imitate everybody. Nothing limits how
// much somebody says who is in.
//
// Build  cc udp_chat.c -o udp_chat           (Windows: add -lws2_32)
// Try    ./udp_chat                          and in two other terminals: nc -u 127.0.0.1 9000
//        ./udp_chat --idle 60 127.0.0.1:0    forget who said nothing for a minute
#define _CRT_RAND_S // Windows: rand_s
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEERS_MAX = 256, TEXT_MAX = 512, COOKIE_MS = 30000 };

static struct peer {
    netio_addr addr;
    char name[17];
    int64_t until; // forgotten then
} peers[PEERS_MAX];
static int peer_count, idle_ms = 300000;

static netio_poller *poller;
static netio_socket server = NETIO_INVALID_SOCKET;
static uint64_t key[2];
static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
    netio_poller_wake(poller);
}

static bool random_key(void)
{
#if defined(_WIN32)
    unsigned word[4] = {0};
    for (int i = 0; i < 4; i++)
        if (rand_s(&word[i]) != 0) return false;
    memcpy(key, word, sizeof key);
    return true;
#else
    FILE *f = fopen("/dev/urandom", "rb");
    bool ok = f && fread(key, sizeof key, 1, f) == 1;
    if (f) fclose(f);
    return ok;
#endif
}

// SipHash-2-4 of whole words. It was made for this: short, and whoever has seen the hashes of many
// texts still cannot tell that of another without the key.
static void sip_mix(uint64_t *a, uint64_t *b, int bits)
{
    *a += *b;
    *b = (*b << bits | *b >> (64 - bits)) ^ *a;
}

static void sip_rounds(uint64_t v[4], int rounds)
{
    while (rounds-- > 0) {
        sip_mix(&v[0], &v[1], 13);
        sip_mix(&v[2], &v[3], 16);
        v[0] = v[0] << 32 | v[0] >> 32;
        sip_mix(&v[0], &v[3], 21);
        sip_mix(&v[2], &v[1], 17);
        v[2] = v[2] << 32 | v[2] >> 32;
    }
}

static uint64_t siphash(const uint64_t *words, int count)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                     key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
    for (int i = 0; i <= count; i++) {
        uint64_t word = i < count ? words[i] : (uint64_t)count * 8 << 56;
        v[3] ^= word;
        sip_rounds(v, 2);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

// The cookie of an address in the current period (age 0) or an older one: 48 bits.
static void make_cookie(char out[13], const netio_addr *a, unsigned age)
{
    uint64_t words[4] = {0, 0, 0, netio_now_ms() / COOKIE_MS - age};
    netio_buf ip = netio_addr_ip(a);
    memcpy(words, ip.data, ip.len);
    words[2] = (uint64_t)netio_addr_port(a) << 48 ^ (uint64_t)ip.len << 32 ^ netio_addr_scope(a);
    snprintf(out, 13, "%012llx", (unsigned long long)(siphash(words, 4) >> 16));
}

static bool cookie_is_good(const char *given, const netio_addr *a)
{
    char now[13], before[13];
    make_cookie(now, a, 0);
    make_cookie(before, a, 1);
    return strcmp(given, now) == 0 || strcmp(given, before) == 0;
}

// What cannot be sent now is lost, as datagrams may be.
static void tell(const netio_addr *to, const char *text)
{
    netio_sendto(server, text, strlen(text), to, 0);
}

static void tell_others(const struct peer *but, const char *text, size_t len)
{
    netio_datagram out[PEERS_MAX] = {{0}};
    size_t count = 0;
    for (int i = 0; i < peer_count; i++) {
        if (&peers[i] == but) continue;
        out[count].data = (char *)text; // only read
        out[count].len = len;
        out[count++].peer = peers[i].addr;
    }
    for (size_t done = 0; done < count; done++) { // one that fails must not cost the rest
        ptrdiff_t n = netio_send_batch(server, out + done, count - done, 0);
        if (n > 0) done += (size_t)n - 1;
    }
}

static void say(const struct peer *who, const char *before, const char *what, const char *text)
{
    char line[TEXT_MAX + 32];
    int len = snprintf(line, sizeof line, "%s%s%s%s\n", before, who->name, what, text);
    tell_others(who, line, (size_t)len);
}

static void forget(struct peer *who, const char *why)
{
    say(who, "* ", why, "");
    *who = peers[--peer_count];
}

static struct peer *find(const netio_addr *a, const char *name)
{
    for (int i = 0; i < peer_count; i++)
        if (a ? netio_addr_equal(&peers[i].addr, a) : strcmp(peers[i].name, name) == 0)
            return &peers[i];
    return NULL;
}

// `len`: how many bytes came, all told.
static void join(const netio_addr *from, const char *name, const char *cookie, size_t len)
{
    char line[64];
    if (!cookie[0]) {
        char fresh[13];
        make_cookie(fresh, from, 0);
        // The star makes it none of the lines that are answered: not even the server itself, or one
        // more of them, can be made to talk to this one.
        int n = snprintf(line, sizeof line, "* /join %s %s\n", name, fresh);
        if ((size_t)n <= 3 * len) tell(from, line);
        return;
    }
    if (!cookie_is_good(cookie, from)) return; // no word: it may be somebody else's address
    struct peer *old = find(from, NULL), *other = find(NULL, name);
    if (old) {
        tell(from, "* welcome back\n"); // the first welcome may have been lost
    } else if (other) {
        tell(from, "* somebody has this name\n");
    } else if (peer_count == PEERS_MAX) {
        tell(from, "* full\n");
    } else {
        struct peer *who = &peers[peer_count++];
        who->addr = *from;
        who->until = netio_deadline(idle_ms);
        snprintf(who->name, sizeof who->name, "%s", name);
        snprintf(line, sizeof line, "* welcome, %d here\n", peer_count);
        tell(from, line);
        say(who, "* ", " joined", "");
    }
}

static void tell_names(const netio_addr *to)
{
    char line[PEERS_MAX * 18 + 3] = "*";
    size_t len = 1;
    for (int i = 0; i < peer_count; i++)
        len += (size_t)snprintf(line + len, sizeof line - len, " %s", peers[i].name);
    snprintf(line + len, sizeof line - len, "\n");
    tell(to, line);
}

// One line of text, `len` bytes with its end: nothing that could look like somebody else's line.
static void take(const netio_addr *from, char *text, size_t len)
{
    char name[17], cookie[13] = "";
    int name_end = 0, cookie_end = 0;
    size_t end = len;
    while (end > 0 && (text[end - 1] == '\n' || text[end - 1] == '\r')) end--;
    text[end] = '\n'; // so that a character that was cut is none
    if (end == 0 || !netio_looks_like_text(text, end + 1)) return;
    text[end] = 0;
    if (strpbrk(text, "\r\n")) return;

    struct peer *who = find(from, NULL);
    if (who) who->until = netio_deadline(idle_ms);
    sscanf(text, "/join %16[A-Za-z0-9_-]%n %12[0-9a-f]%n", name, &name_end, cookie, &cookie_end);
    if (name_end && !text[cookie_end ? cookie_end : name_end]) join(from, name, cookie, len);
    else if (!who && len >= 8 && text[0] != '*') tell(from, "* first say /join NAME\n");
    else if (!who) return;
    else if (strcmp(text, "/who") == 0) tell_names(from);
    else if (strcmp(text, "/leave") == 0) forget(who, " left");
    else if (text[0] == '/') tell(from, "* there are /join NAME, /who and /leave\n");
    else say(who, "", ": ", text);
}

static int serve(void)
{
    char text[TEXT_MAX + 1];
    netio_event event;
    netio_addr from;
    while (!stopping) {
        int64_t first = netio_deadline(-1);
        for (int i = peer_count; i-- > 0;) {
            if (netio_deadline_left(peers[i].until) == 0) forget(&peers[i], " fell silent");
            else if (peers[i].until < first) first = peers[i].until;
        }
        ptrdiff_t n = netio_poller_wait(poller, &event, 1, netio_deadline_left(first));
        if (n < 0) return (int)n;
        for (int i = 0; i < 64 && n > 0; i++) {
            n = netio_recvfrom(server, text, TEXT_MAX, &from, 0);
            if (n > 0 && n <= TEXT_MAX) take(&from, text, (size_t)n); // more was cut: dropped
            else if (n < 0 && n != NETIO_EAGAIN) return (int)n;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *address = ":9000";
    char text[NETIO_ADDR_TEXT];
    netio_addr local;
    int at = 1;
    if (argc > 2 && strcmp(argv[1], "--idle") == 0) {
        double seconds = atof(argv[2]);
        idle_ms = seconds > 0 && seconds < 1e6 ? (int)(seconds * 1000) : 0;
        at = 3;
    }
    if (at < argc) address = argv[at++];
    if (at < argc || idle_ms <= 0 || address[0] == '-') {
        fprintf(stderr, "usage: udp_chat [--idle SECONDS] [ADDRESS]\n");
        return 2;
    }
    int err = random_key() ? 0 : (int)NETIO_EIO;
    if (err == 0) err = netio_poller_open(&poller, NETIO_BACKEND_AUTO);
    if (err == 0) err = netio_bind(&server, address, NULL);
    if (err == 0) err = netio_poller_add(poller, server, NETIO_EV_READ, NULL);
    if (err == 0) err = netio_local_addr(server, &local);
    if (err == 0) err = netio_addr_format(&local, text, sizeof text);
    if (err >= 0) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        printf("listening on %s\n", text);
        fflush(stdout);
        err = serve();
    }
    if (err < 0) fprintf(stderr, "udp_chat: %s: %s\n", address, netio_strerror(err));
    netio_close(&server);
    netio_poller_close(poller);
    return err < 0;
}
