// Many TCP port forwards inside one connection: mutual TLS, and a channel for each client.
//
//     tunnel serve ADDRESS OPTION...        accept links
//     tunnel connect HOST:PORT OPTION...    dial a link, and again, with pauses, if it is lost
//     tunnel text ADDRESS --allow TARGET... for debugging: targets by hand, as lines "number:text"
//
//     --cert FILE --key FILE --ca FILE   who we are, and whom we believe: PEM, needed at both ends
//     --name NAME                the name in the server's certificate, if not the host dialed
//     --allow HOST:PORT          a target that the other end may ask for; no other is connected to
//     -L [HOST:]PORT:TARGET      listen here (127.0.0.1), and have the other end connect to TARGET
//     --links N, --channels N    links at once (16), channels in each (256)
//     --window KIB               of each channel (512)
//     --silence S, --grace S     seconds, see below (30, 10)
//     --plain                    no TLS: for tests, on loopback addresses only
//
// Both --allow and -L work at both ends, so forwards go either way, and never without the consent
// of the end that connects. What it holds in memory is at most links * channels * window, and only
// if as many readers stall. What happens at one end of a forward happens at the other:
//   - a reader that is slow slows its own writer down, by credit, and nobody else's
//   - a link that is slow is shared: who was served longest ago is next
//   - an end (half-close) is an end, a reset a reset; a refused target is a reset, and logged
// A link on which nothing came for --silence seconds, though it was asked, is given up; its clients
// are reset. SIGINT or SIGTERM: no new clients; those there are may finish within --grace.
// The log is on stderr: time, number of the link, what happened.
//
// Build  cc tunnel.c -o tunnel -DNETIO_TLS_OPENSSL -lssl -lcrypto      (Windows: add -lws2_32)
//        cc tunnel.c -o tunnel                               without TLS there are --plain and text
// Try    ./tunnel serve :7443 --cert a.crt --key a.key --ca ca.pem --allow 127.0.0.1:80
//        ./tunnel connect a.example:7443 --cert b.crt --key b.key --ca ca.pem -L 8080:127.0.0.1:80
//        curl http://127.0.0.1:8080/
//        ./tunnel text 127.0.0.1:7000 --allow 127.0.0.1:80
//        printf '0:GET / HTTP/1.0\n0:\n' | nc -N 127.0.0.1 7000
#if !defined(NETIO_TLS_OPENSSL) && !defined(NETIO_TLS_NONE)
#define NETIO_TLS_NONE
#endif
#define NETIO_IMPLEMENTATION
#include "../../netio_tls.h"
#include "../common/channels.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LIST_MOST = 64, TEXT_MOST = 300, LINE_MOST = 4096, HIGH_MARK = 256 * 1024 };

static enum { SERVE, CONNECT, TEXT } role;
static double links_most = 16, channels_most = 256, window_kib = 512, silence = 30, grace = 10;
static const char *cert_file, *key_file, *ca_file, *name;
static bool plain;

static struct rule { // of -L
    char local[TEXT_MOST];
    const char *target;
} rules[LIST_MOST];
static const char *allowed[LIST_MOST];
static size_t rule_count, allowed_count;

typedef struct forward forward;

struct link {
    netio_conn conn;
    channels *channels;
    netio_heartbeat heart;
    netio_timer tick;
    forward *first, *last; // who was served longest ago is first
    struct link *next;
    bool up;       // the other end has spoken
    bool stopping; // closes with its last forward
};

struct forward {
    struct link *link; // NULL: it is gone
    netio_conn local;
    uint16_t id;
    bool there; // the channel, as far as we are concerned
    bool held;  // does not read, as the link is congested
    forward *next, *before;
    char target[TEXT_MOST];
};

static netio_loop *loop;
static netio_tls_ctx *tls;
static struct link *links;
static const char *address;
static netio_backoff backoff = {.base_ms = 250};
static bool stopping;

//------------------------------------------------------------------------------------------------
// Log
//------------------------------------------------------------------------------------------------

// Part of it may come from the other end: nothing gets out that steers a terminal.
static void note(netio_conn c, const char *format, ...)
{
    char text[1024], now[32] = "?";
    time_t seconds = time(NULL);
    struct tm *utc = gmtime(&seconds);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (utc) strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", utc);
    fprintf(stderr, "%s #%u ", now, (unsigned)netio_conn_id(c));
    for (const char *at = text; *at; at++) {
        if (*at >= ' ' && *at <= '~') fputc(*at, stderr);
        else fprintf(stderr, "\\x%02x", (unsigned char)*at);
    }
    fputc('\n', stderr);
}

static const char *why(netio_conn c, int err)
{
    static netio_error error;
    return netio_conn_error(c, &error) == 0 ? error.text : netio_strerror(err);
}

static void note_peer(netio_conn c)
{
    char peer[NETIO_ADDR_TEXT] = "?";
    netio_tls_info info;
    netio_addr a;
    if (netio_conn_peer(c, &a) == 0) netio_addr_format(&a, peer, sizeof peer);
    if (netio_tls_conn_info(c, &info) < 0) {
        note(c, "link with %s, no TLS", peer);
    } else {
        const netio_tls_cert *cert = info.chain;
        const uint8_t *sum = cert ? cert->sha256 : (const uint8_t *)"\0\0\0\0";
        note(c, "link with %s, who is %s, certificate %02x%02x%02x%02x, %s", peer,
             cert ? cert->subject : "?", sum[0], sum[1], sum[2], sum[3], info.version_text);
    }
}

//------------------------------------------------------------------------------------------------
// Forwards: a local connection, and a channel of the link
//------------------------------------------------------------------------------------------------

static void list(struct link *l, forward *f) // as the one served last
{
    f->link = l;
    f->next = NULL;
    f->before = l->last;
    if (l->last) l->last->next = f;
    else l->first = f;
    l->last = f;
}

static void unlist(forward *f)
{
    struct link *l = f->link;
    if (f->next) f->next->before = f->before;
    else l->last = f->before;
    if (f->before) f->before->next = f->next;
    else l->first = f->next;
}

static void settle(struct link *l)
{
    if (l->stopping && !l->first) netio_conn_close(l->conn);
}

// The link's queue is full, or its rules were broken: there is nothing to be saved.
static void check(struct link *l, int err)
{
    if (err >= 0 || !netio_conn_alive(l->conn)) return;
    const char *text = channels_why(l->channels);
    note(l->conn, "given up: %s", *text ? text : netio_strerror(err));
    netio_conn_abort(l->conn);
}

static forward *forward_create(struct link *l, const char *target, size_t len)
{
    forward *f = len < TEXT_MOST ? calloc(1, sizeof *f) : NULL;
    if (!f) return NULL;
    memcpy(f->target, target, len);
    list(l, f);
    return f;
}

// A target that cannot be reached any more is told by on_close.
static void pour(forward *f)
{
    struct link *l = f->link;
    netio_buf piece[2] = {{NULL, 0}, {"\n", 1}};
    int err = 0;
    while (err == 0 && !netio_conn_congested(f->local)) {
        piece[0] = channels_front(l->channels, f->id);
        if (!piece[0].data) break;
        if (netio_conn_writev(f->local, piece, role == TEXT ? 2 : 1) < 0)
            netio_conn_abort(f->local);
        err = channels_drop(l->channels, f->id, piece[0].len);
    }
    if (channels_ended(l->channels, f->id)) netio_conn_shutdown(f->local);
    check(l, err);
}

static void hold(forward *f)
{
    netio_conn_pause(f->local);
    f->held = netio_conn_congested(f->link->conn); // else credit ends the pause
}

static void on_local_data(netio_conn c, const void *data, size_t len)
{
    forward *f = netio_conn_user(c);
    struct link *l = f->link;
    ptrdiff_t n = 0;
    if (!netio_conn_congested(l->conn)) {
        n = channels_send(l->channels, f->id, data, len);
        unlist(f);
        list(l, f);
    }
    if (n < 0 && n != NETIO_ENOBUFS) check(l, (int)n);
    if (n < 0) n = 0;
    if ((size_t)n < len && netio_conn_unread(c, len - (size_t)n) < 0) netio_conn_abort(c);
    if ((size_t)n < len || netio_conn_congested(l->conn)) hold(f);
}

static void on_local_line(netio_conn c, const netio_frame *frame)
{
    forward *f = netio_conn_user(c);
    check(f->link, (int)channels_send(f->link->channels, f->id, frame->data, frame->len));
    if (netio_conn_congested(f->link->conn)) hold(f);
}

static void on_local_drain(netio_conn c) { pour(netio_conn_user(c)); }

static void on_local_eof(netio_conn c)
{
    forward *f = netio_conn_user(c);
    if (role == TEXT) netio_conn_close(c);
    else check(f->link, channels_end(f->link->channels, f->id));
}

static void on_local_stop(netio_conn c) { (void)c; } // what is under way may finish

static void on_local_close(netio_conn c, int err)
{
    forward *f = netio_conn_user(c);
    netio_stats s = {0};
    if (!f) return;
    netio_conn_stats(c, &s);
    if (f->link) {
        struct link *l = f->link;
        unlist(f);
        if (f->there) {
            note(l->conn, "%u %s: %s; %.0f bytes from here, %.0f to here", f->id, f->target,
                 err < 0 ? why(c, err) : "ended", (double)s.bytes_in, (double)s.bytes_out);
            check(l, channels_close(l->channels, f->id, err));
        }
        settle(l);
    }
    free(f);
}

// A target answers: so does the channel, and only now may bytes come.
static void on_target(netio_conn c)
{
    forward *f = netio_conn_user(c);
    netio_socket s;
    if (netio_conn_socket(c, &s) == 0) netio_set_keepalive(s, 60, 10, 5);
    if (role != TEXT) check(f->link, channels_accept(f->link->channels, f->id));
}

static const netio_handler locals = {.on_open = on_target,
                                     .on_data = on_local_data,
                                     .on_frame = on_local_line,
                                     .on_drain = on_local_drain,
                                     .on_eof = on_local_eof,
                                     .on_stop = on_local_stop,
                                     .on_close = on_local_close};

// What local connections have in common: a peer that stalls may do so for as long as it likes.
static void local_opts(netio_conn_opts *o, void *user)
{
    o->user = user;
    o->read_always = true; // what one side owes must not stop what it says
    o->write_timeout_ms = -1;
    if (role != TEXT) return;
    o->framing = netio_framing_line(LINE_MOST);
    o->framing.skip = true;
}

// Connect to a target for channel `id`. Returns 0 or an error.
static int forward_dial(struct link *l, uint16_t id, const char *target, size_t len)
{
    netio_dial_opts opts = {.timeout_ms = 10000};
    forward *f = forward_create(l, target, len);
    if (!f) return NETIO_ENOMEM;
    local_opts(&opts.conn, f);
    f->id = id;
    int err = netio_conn_dial(&f->local, loop, f->target, &locals, &opts);
    if (err < 0) {
        unlist(f);
        free(f);
        return err;
    }
    f->there = true;
    channels_set_user(l->channels, id, f);
    return 0;
}

// A client at one of our -L.
static void on_client(netio_conn c)
{
    const char *target = ((const struct rule *)netio_conn_user(c))->target;
    size_t len = strlen(target);
    struct link *l = links;
    netio_socket s;
    netio_conn_set_user(c, NULL);
    while (l && (!l->up || l->stopping)) l = l->next;
    forward *f = l ? forward_create(l, target, len) : NULL;
    int err = f ? channels_open(l->channels, &f->id, target, len, f) : NETIO_ENOMEM;
    if (err < 0) {
        note(c, "%s: client refused: %s", target, l ? netio_strerror(err) : "there is no link");
        if (f) unlist(f);
        free(f);
        netio_conn_abort(c);
        return;
    }
    f->there = true;
    f->local = c;
    netio_conn_set_user(c, f);
    netio_conn_set_handler(c, &locals);
    netio_conn_pause(c); // until the target is there
    if (netio_conn_socket(c, &s) == 0) netio_set_keepalive(s, 60, 10, 5);
}

//------------------------------------------------------------------------------------------------
// Links
//------------------------------------------------------------------------------------------------

static int emit(void *user, const netio_frame *frame)
{
    return netio_conn_send_frame(((struct link *)user)->conn, frame);
}

// The other end wants a target.
static int on_wanted(struct link *l, const channels_event *e)
{
    size_t i = 0;
    while (i < allowed_count && (strlen(allowed[i]) != e->label.len ||
                                 memcmp(allowed[i], e->label.data, e->label.len) != 0))
        i++;
    int err = i == allowed_count ? NETIO_EACCES : l->stopping ? NETIO_ECANCELED : 0;
    if (err == 0) err = forward_dial(l, e->id, allowed[i], e->label.len);
    if (err == 0) return 0;
    note(l->conn, "%u %.*s: refused: %s", e->id, (int)e->label.len, (const char *)e->label.data,
         netio_strerror(err));
    return channels_close(l->channels, e->id, err);
}

static int on_event(struct link *l, const channels_event *e)
{
    forward *f = e->user;
    switch (e->type) {
    case CHANNELS_OPEN: return on_wanted(l, e);
    case CHANNELS_ACCEPTED:
    case CHANNELS_CREDITED: netio_conn_resume(f->local); break;
    case CHANNELS_DATA:
    case CHANNELS_ENDED: pour(f); break;
    case CHANNELS_CLOSED:
        note(l->conn, "%u %s: given up over there: %s", f->id, f->target, netio_strerror(e->err));
        f->there = false;
        netio_conn_abort(f->local);
        break;
    default: break;
    }
    return 0;
}

static void on_link_frame(netio_conn c, const netio_frame *frame)
{
    struct link *l = netio_conn_user(c);
    channels_event e;
    netio_heartbeat_seen(&l->heart, netio_loop_now_ms(loop));
    if (!l->up && role != TEXT) { // a server that does not like our certificate never speaks
        note(c, "up");
        backoff.tries = 0;
    }
    l->up = true;
    int err = channels_input(l->channels, frame, &e);
    if (err == NETIO_ENOBUFS && role == TEXT) return; // counted
    if (err == 0) err = on_event(l, &e);
    if (err == 0) err = channels_keep(l->channels);
    check(l, err);
}

static void on_link_drain(netio_conn c)
{
    struct link *l = netio_conn_user(c);
    for (forward *f = l->first; f; f = f->next) {
        if (f->held) netio_conn_resume(f->local); // in this order
        f->held = false;
    }
}

// TEXT: nothing more for the targets; their answers may still come.
static void on_link_eof(netio_conn c)
{
    struct link *l = netio_conn_user(c);
    if (role != TEXT) netio_conn_close(c);
    if (role != TEXT) return;
    l->stopping = true;
    for (forward *f = l->first; f; f = f->next) netio_conn_shutdown(f->local);
    settle(l);
}

static void on_link_stop(netio_conn c)
{
    struct link *l = netio_conn_user(c);
    if (!l || role == TEXT) netio_conn_close(c);
    if (!l) return;
    l->stopping = true;
    settle(l);
}

static void on_tick(void *user)
{
    struct link *l = user;
    switch (netio_heartbeat_tick(&l->heart, netio_loop_now_ms(loop))) {
    case NETIO_HEARTBEAT_PING: check(l, channels_ping(l->channels)); break;
    case NETIO_HEARTBEAT_DEAD:
        note(l->conn, "silent: given up");
        netio_conn_abort(l->conn);
        break;
    default: break;
    }
}

static void dial_link(void *user);

static void link_free(struct link *l)
{
    struct link **at = &links;
    channels_stats s = channels_get_stats(l->channels);
    if (s.bad_lines || s.unknown || s.full)
        note(l->conn, "%u lines were none, %u for nobody, %u for those who had enough waiting",
             (unsigned)s.bad_lines, (unsigned)s.unknown, (unsigned)s.full);
    for (forward *f = l->first; f; f = f->next) {
        f->link = NULL;
        netio_conn_abort(f->local); // on_local_close frees it
    }
    while (*at != l) at = &(*at)->next;
    *at = l->next;
    netio_timer_stop(l->tick);
    channels_destroy(l->channels);
    free(l);
}

static void on_link_close(netio_conn c, int err)
{
    struct link *l = netio_conn_user(c);
    note(c, "link ended%s%s", err < 0 ? ": " : " in order", err < 0 ? why(c, err) : "");
    if (l) link_free(l);
    if (role != CONNECT || stopping) return;
    int pause_ms = netio_backoff_next(&backoff);
    note(c, "again in %d ms", pause_ms);
    netio_timer_once(NULL, loop, pause_ms, dial_link, NULL);
}

static int link_open(struct link *l)
{
    channels_opts opts = {.mode = role == TEXT ? CHANNELS_TEXT : CHANNELS_CREDIT,
                          .dialed = role == CONNECT,
                          .window = (size_t)window_kib * 1024,
                          .max = (size_t)channels_most,
                          .emit = emit,
                          .user = l};
    int tick_ms = (int)(silence * 1000 / 8), err = channels_create(&l->channels, &opts);
    if (err < 0) return err;
    l->next = links;
    links = l;
    netio_conn_set_user(l->conn, l);
    for (size_t i = 0; role == TEXT && err == 0 && i < allowed_count; i++) {
        err = channels_add(l->channels, (uint16_t)i, NULL);
        if (err == 0) err = forward_dial(l, (uint16_t)i, allowed[i], strlen(allowed[i]));
    }
    if (role == TEXT || err < 0) return err;
    l->heart.interval_ms = l->heart.limit_ms = 4 * tick_ms;
    err = netio_timer_every(&l->tick, loop, tick_ms, on_tick, l);
    return err < 0 ? err : channels_ping(l->channels); // the answer is the other end's first word
}

static void on_link(netio_conn c)
{
    struct link *l = calloc(1, sizeof *l);
    int err = NETIO_ENOMEM;
    note_peer(c);
    netio_conn_set_user(c, NULL);
    if (l) l->conn = c;
    if (l) err = link_open(l);
    if (err == 0) return;
    note(c, "%s", netio_strerror(err));
    if (l && !netio_conn_user(c)) free(l); // else on_link_close does
    netio_conn_abort(c);
}

static void on_refused(void *user, const netio_addr *peer, const netio_error *error)
{
    char text[NETIO_ADDR_TEXT] = "?";
    netio_conn none = {NULL, 0};
    (void)user;
    netio_addr_format(peer, text, sizeof text);
    note(none, "refused %s: %s", text, error->text[0] ? error->text : netio_strerror(error->err));
}

static void link_opts(netio_conn_opts *o)
{
    o->framing = channels_framing(role == TEXT ? CHANNELS_TEXT : CHANNELS_CREDIT);
    o->high_mark = HIGH_MARK;
    o->read_always = role != TEXT; // credit is the limit; if both ends waited, both would forever
    if (tls) o->filter = netio_tls_filter(tls);
}

static const netio_handler link_handler = {.on_open = on_link,
                                           .on_frame = on_link_frame,
                                           .on_drain = on_link_drain,
                                           .on_eof = on_link_eof,
                                           .on_stop = on_link_stop,
                                           .on_close = on_link_close};

static void dial_link(void *user)
{
    netio_dial_opts opts = {.timeout_ms = 10000, .server_name = name};
    netio_conn c;
    (void)user;
    link_opts(&opts.conn);
    int err = stopping ? 0 : netio_conn_dial(&c, loop, address, &link_handler, &opts);
    if (err < 0) fprintf(stderr, "tunnel: %s: %s\n", address, netio_strerror(err));
    if (err < 0) netio_loop_stop(loop);
}

//------------------------------------------------------------------------------------------------
// The program
//------------------------------------------------------------------------------------------------

static int usage(const char *complaint, const char *about)
{
    if (complaint) fprintf(stderr, "tunnel: %s%s\n", complaint, about);
    fprintf(stderr, "usage: tunnel serve ADDRESS   --cert FILE --key FILE --ca FILE OPTION...\n"
                    "       tunnel connect ADDRESS --cert FILE --key FILE --ca FILE OPTION...\n"
                    "       tunnel text ADDRESS --allow TARGET...\n"
                    "options: --allow TARGET, -L [HOST:]PORT:TARGET, --name NAME, --plain,\n"
                    "         --links, --channels, --window, --silence, --grace NUMBER\n");
    return 2;
}

static bool is_loopback(const char *text)
{
    netio_addr a;
    return netio_addr_parse(&a, text, strlen(text)) == 0 &&
           (netio_addr_class(&a) & NETIO_ADDR_LOOPBACK) != 0;
}

// "[HOST:]PORT:TARGET": the target is what stands behind the last colon but one.
static bool add_rule(const char *text)
{
    const char *at = strrchr(text, ':'); // the one in the target
    if (!at || at == text || rule_count == LIST_MOST) return false;
    at--;
    bool literal = *at == ']'; // its colons do not count
    while (at > text && (literal || *at != ':')) {
        if (*at == '[') literal = false;
        at--;
    }
    if (at == text || *at != ':' || at - text > 200) return false;
    struct rule *r = &rules[rule_count++];
    bool host = memchr(text, ':', (size_t)(at - text)) != NULL;
    snprintf(r->local, sizeof r->local, "%s%.*s", host ? "" : "127.0.0.1:", (int)(at - text), text);
    r->target = at + 1;
    return strlen(r->target) < TEXT_MOST;
}

static bool set_option(const char *option, const char *value)
{
    static const struct {
        const char *option;
        const char **text;
        double *number;
    } table[] = {{"--cert", &cert_file, NULL},    {"--key", &key_file, NULL},
                 {"--ca", &ca_file, NULL},        {"--name", &name, NULL},
                 {"--links", NULL, &links_most},  {"--channels", NULL, &channels_most},
                 {"--window", NULL, &window_kib}, {"--silence", NULL, &silence},
                 {"--grace", NULL, &grace}};
    if (strcmp(option, "-L") == 0) return add_rule(value);
    if (strcmp(option, "--allow") == 0) {
        if (allowed_count == LIST_MOST || strlen(value) >= TEXT_MOST) return false;
        allowed[allowed_count++] = value;
        return true;
    }
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(option, table[i].option) != 0) continue;
        if (table[i].text) *table[i].text = value;
        else *table[i].number = strtod(value, NULL);
        return table[i].text || (*table[i].number >= 1 && *table[i].number <= 32768);
    }
    return false;
}

// Returns 0, or 2 after saying what is wrong.
static int parse(int argc, char **argv)
{
    static const char *const roles[] = {"serve", "connect", "text"};
    int r = 0;
    while (argc > 2 && r < 3 && strcmp(argv[1], roles[r]) != 0) r++;
    if (argc < 3 || r == 3 || argv[2][0] == '-') return usage(NULL, NULL);
    role = r == 0 ? SERVE : r == 1 ? CONNECT : TEXT;
    address = argv[2];
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--plain") == 0) plain = true;
        else if (i + 1 == argc || !set_option(argv[i], argv[i + 1]))
            return usage("not understood: ", argv[i]);
        else i++;
    }
    if (role == TEXT && !allowed_count) return usage("text needs --allow", "");
    if ((plain || role == TEXT) && !is_loopback(address))
        return usage("without TLS only on a loopback address, by number, not on ", address);
    if (!plain && role != TEXT && (!cert_file || !key_file || !ca_file))
        return usage("both ends need --cert, --key and --ca", "");
    return 0;
}

static int tls_open(void)
{
    static const char *const alpn[] = {"netio-tunnel/1"}; // this version of what is in the link
    netio_tls_config cfg = {.ca_file = ca_file,
                            .cert_file = cert_file,
                            .key_file = key_file,
                            .client_cert = NETIO_TLS_CLIENT_CERT_REQUIRED,
                            .alpn = alpn,
                            .alpn_count = 1};
    netio_tls_error error = {0};
    if (plain) fprintf(stderr, "tunnel: WARNING: --plain, so nothing is encrypted or verified\n");
    if (plain || role == TEXT) return 0;
    int err = netio_tls_ctx_create(&tls, &cfg, &error);
    if (err == NETIO_ENOTSUP && strcmp(netio_tls_backend(0), "none") == 0)
        fprintf(stderr, "tunnel: built without TLS; build it with -DNETIO_TLS_OPENSSL -lssl "
                        "-lcrypto\n");
    else if (err < 0)
        fprintf(stderr, "tunnel: %s\n", error.text[0] ? error.text : netio_strerror(err));
    return err;
}

static int listen_on(const char *where, const char *target, const netio_handler *handler,
                     const netio_listener_opts *opts)
{
    char text[NETIO_ADDR_TEXT] = "?";
    netio_listener listener;
    netio_addr local;
    int err = netio_listener_open(&listener, loop, where, handler, opts);
    if (err == 0) err = netio_listener_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, text, sizeof text);
    if (err >= 0)
        printf("listening on %s%s%s\n", text, target ? " for " : "", target ? target : "");
    else fprintf(stderr, "tunnel: %s: %s\n", where, netio_strerror(err));
    fflush(stdout);
    return err < 0 ? err : 0;
}

static void on_signal(void *user)
{
    netio_conn none = {NULL, 0};
    (void)user;
    stopping = true;
    netio_loop_finish(loop, (int)(grace * 1000)); // a second signal stops at once
    note(none, "stopping");
}

static int start(void)
{
    static const netio_handler clients = {.on_open = on_client};
    netio_listener_opts link = {.conn_max = (size_t)links_most, .on_refused = on_refused};
    int err = tls_open();
    if (err == 0) err = netio_loop_create(&loop, NULL);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGINT, on_signal, NULL);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGTERM, on_signal, NULL);
    for (size_t i = 0; err == 0 && i < rule_count; i++) {
        netio_listener_opts opts = {.conn_max = (size_t)channels_most};
        local_opts(&opts.conn, &rules[i]);
        err = listen_on(rules[i].local, rules[i].target, &clients, &opts);
    }
    link_opts(&link.conn);
    if (err == 0 && role == CONNECT) dial_link(NULL);
    else if (err == 0) err = listen_on(address, NULL, &link_handler, &link);
    return err == 0 ? netio_loop_run(loop) : err;
}

int main(int argc, char **argv)
{
    int code = parse(argc, argv);
    if (code) return code;
    int err = start();
    netio_loop_destroy(loop);
    netio_tls_ctx_unref(tls);
    return err < 0;
}
