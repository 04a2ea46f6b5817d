// A chat by lines, for netcat: rooms, names, and limits on all that a client may do or not do.
//
//     LOGIN NAME       take a name, and enter the room "lobby"; WHOAMI tells it
//     JOIN ROOM        go to another room; WHO tells who is there
//     SAY TEXT         to all others in the room; a line that is no command is said, too
//     HELLO, ECHO TEXT, GET STATUS, GET TIME, PING, QUIT
//
// What it does against bad clients and bad links:
//   - so many clients, so many from one host, so many new ones from a host a minute: others are
//     told that it is full, and closed
//   - lines have a longest length; a client that sends too many is read more slowly, and loses none
//   - who does not read is cut off when its queue is full, so it costs the others nothing
//   - after some silence a client is asked PING, and is gone if not one line comes, PONG or any
//     other; half a line does not count, nor what the server sends. Who only answers pings, and
//     says nothing for long, is idle and closed as well
//   - with the environment variable CHAT_PASSWORD nothing works before AUTH PASSWORD. There is no
//     encryption here: who can see the packets can read it
// SIGTERM or SIGINT: no new clients, all are told BYE and get what is queued for them within the
// grace time; a second signal ends it at once. Each event is a line on stderr: time, level, client.
//
// Build  cc chat_server.c -o chat_server            (Windows: add -lws2_32)
// Try    ./chat_server 127.0.0.1:9000               and in other terminals: nc 127.0.0.1 9000
//        ./chat_server --max 5 --silence 60 --lines 2 :9000
#define NETIO_IMPLEMENTATION
#include "../../netio.h"

#include <ctype.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LINE_MOST = 512, NAME_MOST = 16, QUEUE_MOST = 64 * 1024, TICK_MS = 100 };

static double client_max = 1000, host_max = 100, connects = 600, lines = 5;
static double silence = 20, idle = 900, grace = 10;

static const struct {
    const char *name, *what;
    double *value;
} options[] = {
    {"--max", "clients", &client_max},
    {"--host-max", "clients from one host", &host_max},
    {"--connects", "new clients from one host a minute", &connects},
    {"--lines", "lines a second from one client", &lines},
    {"--silence", "seconds without a line until a client is gone; a ping is sent half-way",
     &silence},
    {"--idle", "seconds in which a client says nothing and does nothing but answer pings", &idle},
    {"--grace", "seconds for the clients to take the last lines when it stops", &grace},
};
enum { OPTIONS = sizeof options / sizeof *options };

// A client's states. From each one also to CLOSING, where what still comes is ignored.
//
//     GATE ---AUTH---> GUEST ---LOGIN---> NAMED          without a password it begins as a GUEST
//
enum state { GATE = 1, GUEST = 2, NAMED = 4, CLOSING = 8, ANY = GATE | GUEST | NAMED };

typedef struct client client;
typedef struct room room;

struct client {
    netio_conn conn;
    enum state state;
    char name[NAME_MOST + 1]; // "": none yet
    room *room;               // NULL: in none
    client *next, **link;     // neighbours there: link points to what points to this one
    netio_heartbeat heart;
    netio_bucket bucket; // of lines
    netio_timer again;   // to read on, when it sent too many
    uint64_t said_ms;    // its last line that was no PONG
};

struct room {
    char name[NAME_MOST + 1];
    client *members; // never empty
    room *next;
};

static netio_loop *loop;
static netio_window *window;
static room *rooms;
static const char *password;

//------------------------------------------------------------------------------------------------
// Log
//------------------------------------------------------------------------------------------------

static void time_text(char out[32])
{
    time_t now = time(NULL);
    struct tm *utc = gmtime(&now);
    if (!utc || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", utc)) snprintf(out, 32, "?");
}

// `text` may come from a client: nothing gets out that steers a terminal or begins another line.
static void write_log(int level, uint64_t id, const char *text)
{
    static const char *const names[] = {"", "ERROR", "WARN", "INFO", "DEBUG"};
    char now[32];
    time_text(now);
    fprintf(stderr, "%s %s #%u ", now, names[level], (unsigned)id);
    for (; *text; text++) {
        if (*text >= ' ' && *text <= '~') fputc(*text, stderr);
        else fprintf(stderr, "\\x%02x", (unsigned char)*text);
    }
    fputc('\n', stderr);
}

static void note(int level, netio_conn c, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    write_log(level, netio_conn_id(c), text);
}

static void on_log(void *user, int level, const char *line)
{
    (void)user;
    write_log(level, 0, line);
}

//------------------------------------------------------------------------------------------------
// Speaking
//------------------------------------------------------------------------------------------------

// on_close follows from the loop, never from inside this; so lists of clients do not change here.
static void send_text(client *to, const char *text, size_t len)
{
    if (netio_conn_write(to->conn, text, len) != NETIO_ENOBUFS) return; // stale: it is closing
    note(NETIO_LOG_WARN, to->conn, "does not read: cut off");
    netio_conn_abort(to->conn);
}

static void tell(client *to, const char *format, ...)
{
    char text[LINE_MOST + 64];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text - 1, format, args);
    va_end(args);
    if (len < 0) return;
    if ((size_t)len > sizeof text - 2) len = (int)sizeof text - 2;
    text[len++] = '\n';
    send_text(to, text, (size_t)len);
}

static void tell_room(const client *from, const char *before, const char *what, const char *text)
{
    char line[LINE_MOST + 64];
    int len = snprintf(line, sizeof line, "%s%s%s%s\n", before, from->name, what, text);
    for (client *m = from->room->members; m; m = m->next) {
        if (m != from) send_text(m, line, (size_t)len);
    }
}

static void set_state(client *me, enum state to)
{
    bool legal =
        to == CLOSING || (me->state == GATE && to == GUEST) || (me->state == GUEST && to == NAMED);
    if (!legal) abort(); // a mistake in this program
    me->state = to;
}

// The last line for a client, which gets it if it reads on.
static void dismiss(client *me, const char *text)
{
    if (me->state == CLOSING) return;
    tell(me, "%s", text);
    set_state(me, CLOSING);
    netio_conn_close(me->conn);
}

//------------------------------------------------------------------------------------------------
// Rooms
//------------------------------------------------------------------------------------------------

static void leave(client *me)
{
    room *r = me->room;
    if (!r) return;
    tell_room(me, "* ", " left", "");
    *me->link = me->next;
    if (me->next) me->next->link = me->link;
    me->room = NULL;
    if (r->members) return;
    for (room **at = &rooms; *at; at = &(*at)->next) {
        if (*at != r) continue;
        *at = r->next;
        break;
    }
    free(r);
}

static bool enter(client *me, const char *name)
{
    room *r = rooms;
    while (r && strcmp(r->name, name) != 0) r = r->next;
    if (!r) {
        r = calloc(1, sizeof *r);
        if (!r) return false;
        snprintf(r->name, sizeof r->name, "%s", name);
        r->next = rooms;
        rooms = r;
    }
    if (r == me->room) return true;
    leave(me);
    me->room = r;
    me->next = r->members;
    me->link = &r->members;
    if (me->next) me->next->link = &me->next;
    r->members = me;
    tell_room(me, "* ", " joined", "");
    return true;
}

// Names of clients and rooms: nothing that could be taken for the text around them.
static bool good_name(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return len > 0 && len <= NAME_MOST && !text[len];
}

static bool name_in_use(const char *name)
{
    for (const room *r = rooms; r; r = r->next) {
        for (const client *m = r->members; m; m = m->next) {
            if (strcmp(m->name, name) == 0) return true;
        }
    }
    return false;
}

//------------------------------------------------------------------------------------------------
// Commands
//------------------------------------------------------------------------------------------------

// Takes as long for a wrong password as for the right one.
static bool is_password(const char *given)
{
    size_t len = strlen(given), want = strlen(password), differ = len ^ want;
    for (size_t i = 0; i < want; i++) {
        differ |= (size_t)((unsigned char)given[i < len ? i : len] ^ (unsigned char)password[i]);
    }
    return differ == 0;
}

static void do_auth(client *me, const char *text)
{
    if (!is_password(text)) {
        note(NETIO_LOG_WARN, me->conn, "wrong password");
        dismiss(me, "ERROR wrong password"); // another try costs another connection
        return;
    }
    set_state(me, GUEST);
    tell(me, "OK");
}

static void do_login(client *me, const char *text)
{
    if (!good_name(text)) {
        tell(me, "ERROR a name has 1 to %d letters and digits", NAME_MOST);
    } else if (name_in_use(text)) {
        tell(me, "ERROR somebody has this name");
    } else {
        snprintf(me->name, sizeof me->name, "%s", text);
        if (!enter(me, "lobby")) {
            dismiss(me, "ERROR no memory");
            return;
        }
        set_state(me, NAMED);
        note(NETIO_LOG_INFO, me->conn, "is %s", me->name);
        tell(me, "OK you are %s", me->name);
    }
}

static void do_whoami(client *me, const char *text)
{
    (void)text;
    tell(me, "%s, client %u, in %s", me->name, (unsigned)netio_conn_id(me->conn), me->room->name);
}

static void do_join(client *me, const char *text)
{
    if (!good_name(text)) tell(me, "ERROR a room's name has 1 to %d letters and digits", NAME_MOST);
    else if (!enter(me, text)) tell(me, "ERROR no memory");
    else tell(me, "OK you are in %s", me->room->name);
}

static void do_who(client *me, const char *text)
{
    char line[LINE_MOST];
    size_t len = 0, left_out = 0;
    (void)text;
    for (const client *m = me->room->members; m; m = m->next) {
        if (len + NAME_MOST + 2 > sizeof line) left_out++;
        else len += (size_t)snprintf(line + len, sizeof line - len, " %s", m->name);
    }
    if (left_out) tell(me, "WHO%s and %u more", line, (unsigned)left_out);
    else tell(me, "WHO%s", line);
}

static void do_say(client *me, const char *text) { tell_room(me, "", ": ", text); }

static void do_hello(client *me, const char *text)
{
    (void)text;
    tell(me, "HELLO %s", me->name[0] ? me->name : "guest");
}

static void do_echo(client *me, const char *text) { tell(me, "%s", text); }

static void do_get_status(client *me, const char *text)
{
    netio_stats s;
    (void)text;
    netio_loop_stats(loop, &s);
    tell(me, "STATUS %u clients, %u refused, up %u s", (unsigned)s.active, (unsigned)s.refused,
         (unsigned)((netio_loop_now_ms(loop) - s.opened_ms) / 1000));
}

static void do_get_time(client *me, const char *text)
{
    char now[32];
    (void)text;
    time_text(now);
    tell(me, "TIME %s", now);
}

static void do_ping(client *me, const char *text)
{
    (void)text;
    tell(me, "PONG");
}

static void do_pong(client *me, const char *text) // that it came was all that counts
{
    (void)me;
    (void)text;
}

static void do_quit(client *me, const char *text)
{
    (void)text;
    dismiss(me, "BYE");
}

static const struct {
    const char *words;
    bool with_text;  // else nothing may follow the words: "hello all" is no HELLO
    unsigned states; // in which it works
    void (*run)(client *me, const char *text);
} commands[] = {
    {"AUTH", true, GATE, do_auth},
    {"LOGIN", true, GUEST, do_login},
    {"WHOAMI", false, NAMED, do_whoami},
    {"JOIN", true, NAMED, do_join},
    {"WHO", false, NAMED, do_who},
    {"SAY", true, NAMED, do_say},
    {"HELLO", false, GUEST | NAMED, do_hello},
    {"ECHO", true, GUEST | NAMED, do_echo},
    {"GET STATUS", false, GUEST | NAMED, do_get_status},
    {"GET TIME", false, GUEST | NAMED, do_get_time},
    {"PING", false, ANY, do_ping},
    {"PONG", false, ANY, do_pong},
    {"QUIT", false, ANY, do_quit},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

// What follows the words, past blanks, if the line begins with them in whatever case; else NULL.
static const char *after_words(const char *line, const char *words)
{
    for (; *words; words++, line++) {
        if (toupper((unsigned char)*line) != *words) return NULL;
    }
    if (*line && *line != ' ' && *line != '\t') return NULL;
    return line + strspn(line, " \t");
}

static void obey(client *me, const char *line)
{
    for (int i = 0; i < COMMANDS; i++) {
        const char *text = after_words(line, commands[i].words);
        if (!text || (*text && !commands[i].with_text)) continue;
        if (commands[i].run != do_pong) me->said_ms = netio_loop_now_ms(loop);
        if (commands[i].states & me->state) commands[i].run(me, text);
        else if (me->state == GATE) tell(me, "ERROR first AUTH");
        else if (me->state == GUEST) tell(me, "ERROR first LOGIN");
        else tell(me, "ERROR not again");
        return;
    }
    me->said_ms = netio_loop_now_ms(loop);
    if (me->state == NAMED) do_say(me, line);
    else tell(me, "ERROR no such command");
}

//------------------------------------------------------------------------------------------------
// Clients
//------------------------------------------------------------------------------------------------

static void read_on(void *user) { netio_conn_resume(((client *)user)->conn); }

// One line, `len` bytes without its newline.
static void take_line(client *me, const char *data, size_t len)
{
    char line[LINE_MOST + 1];
    while (len > 0 && isspace((unsigned char)data[len - 1])) len--;
    while (len > 0 && isspace((unsigned char)*data)) data++, len--;
    netio_heartbeat_seen(&me->heart, netio_loop_now_ms(loop));
    if (len == 0) return;
    if (!netio_looks_like_text(data, len) || memchr(data, '\r', len)) {
        tell(me, "ERROR that is no text");
        return;
    }
    memcpy(line, data, len);
    line[len] = 0;
    obey(me, line);
}

static void on_data(netio_conn c, const void *data, size_t len)
{
    client *me = netio_conn_user(c);
    const char *at = data, *end = at + len;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if ((newline ? newline : end) - at > LINE_MOST) {
            note(NETIO_LOG_WARN, c, "line too long");
            dismiss(me, "ERROR line too long");
            return;
        }
        if (!newline) break;
        int wait_ms = netio_bucket_take(&me->bucket, 1, netio_loop_now_ms(loop));
        if (wait_ms > 0 && netio_timer_once(&me->again, loop, wait_ms, read_on, me) == 0) {
            netio_conn_pause(c); // TCP makes the client wait
            break;
        }
        take_line(me, at, (size_t)(newline - at));
        if (!netio_conn_alive(c)) return;
        at = newline + 1;
    }
    if (at < end) netio_conn_unread(c, (size_t)(end - at)); // comes again, with what follows
}

static void on_stop(netio_conn c) { dismiss(netio_conn_user(c), "BYE the server stops"); }

static void on_close(netio_conn c, int err)
{
    client *me = netio_conn_user(c);
    netio_error why;
    if (err < 0 && netio_conn_error(c, &why) == 0) note(NETIO_LOG_WARN, c, "ended: %s", why.text);
    else note(NETIO_LOG_INFO, c, "ended");
    if (!me) return;
    leave(me);
    netio_timer_stop(me->again);
    free(me);
}

static void on_open(netio_conn c)
{
    char text[NETIO_ADDR_TEXT] = "?";
    netio_addr peer;
    client *me = calloc(1, sizeof *me);
    if (!me) {
        netio_conn_abort(c);
        return;
    }
    me->conn = c;
    me->state = password ? GATE : GUEST;
    me->said_ms = netio_loop_now_ms(loop);
    me->heart.interval_ms = (int)(silence * 1000 / 2);
    me->heart.limit_ms = me->heart.interval_ms;
    me->bucket.rate = lines;
    netio_conn_set_user(c, me);
    if (netio_conn_peer(c, &peer) == 0) netio_addr_format(&peer, text, sizeof text);
    note(NETIO_LOG_INFO, c, "connected from %s", text);
    tell(me, "%s", password ? "READY" : "WELCOME");
}

static bool on_accept(void *user, const netio_addr *peer)
{
    (void)user;
    return netio_window_take(window, peer, netio_loop_now_ms(loop)) != NETIO_EBUSY;
}

static void on_refused(void *user, const netio_addr *peer, const netio_error *why)
{
    char address[NETIO_ADDR_TEXT] = "?", text[2 * NETIO_ADDR_TEXT];
    (void)user;
    netio_addr_format(peer, address, sizeof address);
    snprintf(text, sizeof text, "refused %s: %s", address, netio_strerror(why->err));
    write_log(NETIO_LOG_WARN, 0, text);
}

static void look_after(void *user, netio_conn c)
{
    uint64_t now_ms = *(uint64_t *)user;
    client *me = netio_conn_user(c);
    if (!me || me->state == CLOSING) return;
    switch (netio_heartbeat_tick(&me->heart, now_ms)) {
    case NETIO_HEARTBEAT_PING: tell(me, "PING"); break;
    case NETIO_HEARTBEAT_DEAD:
        note(NETIO_LOG_WARN, c, "silent: gone");
        dismiss(me, "BYE no answer");
        return;
    default: break;
    }
    if (now_ms - me->said_ms > (uint64_t)(idle * 1000)) dismiss(me, "BYE idle");
}

static void on_tick(void *user)
{
    uint64_t now_ms = netio_loop_now_ms(loop);
    (void)user;
    netio_conn_each(loop, look_after, &now_ms);
}

//------------------------------------------------------------------------------------------------
// The program
//------------------------------------------------------------------------------------------------

static void on_signal(void *user)
{
    (void)user;
    write_log(NETIO_LOG_INFO, 0, "stopping");
    netio_loop_finish(loop, (int)(grace * 1000));
}

static int usage(void)
{
    fprintf(stderr, "usage: chat_server [OPTION NUMBER]... [ADDRESS]\n");
    for (int i = 0; i < OPTIONS; i++) {
        fprintf(stderr, "  %-11s %s (%g)\n", options[i].name, options[i].what, *options[i].value);
    }
    return 2;
}

// Returns the address; NULL: not understood.
static const char *parse(int argc, char **argv)
{
    const char *address = ":9000";
    for (int i = 1; i < argc; i++) {
        int k = 0;
        if (argv[i][0] != '-') {
            address = argv[i];
            continue;
        }
        while (k < OPTIONS && strcmp(argv[i], options[k].name) != 0) k++;
        if (k == OPTIONS || ++i == argc) return NULL;
        *options[k].value = strtod(argv[i], NULL);
        if (!(*options[k].value > 0.01 && *options[k].value < 1e6)) return NULL;
    }
    return address;
}

static int serve(const char *address)
{
    static const netio_handler chat = {
        .on_open = on_open, .on_data = on_data, .on_stop = on_stop, .on_close = on_close};
    netio_listener_opts opts = {0};
    netio_loop_opts loop_opts = {.log = on_log};
    netio_listener listener;
    netio_addr local;
    char text[NETIO_ADDR_TEXT];
    opts.conn_max = (size_t)client_max;
    opts.conn_max_per_host = (size_t)host_max;
    opts.refusal = "ERROR server full\n";
    opts.on_accept = on_accept;
    opts.on_refused = on_refused;
    opts.conn.write_queue_max = QUEUE_MOST;
    opts.conn.high_mark = QUEUE_MOST / 2;

    int err = netio_window_create(&window, (size_t)connects, 60000, 1024);
    if (err == 0) err = netio_loop_create(&loop, &loop_opts);
    if (err == 0) err = netio_listener_open(&listener, loop, address, &chat, &opts);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGINT, on_signal, NULL);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGTERM, on_signal, NULL);
    if (err == 0) err = netio_timer_every(NULL, loop, TICK_MS, on_tick, NULL);
    if (err == 0) err = netio_listener_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, text, sizeof text);
    if (err >= 0) {
        printf("listening on %s\n", text);
        fflush(stdout);
        err = netio_loop_run(loop);
    }
    return err;
}

int main(int argc, char **argv)
{
    const char *address = parse(argc, argv);
    if (!address) return usage();
    password = getenv("CHAT_PASSWORD");
    int err = serve(address);
    if (err < 0) fprintf(stderr, "chat_server: %s: %s\n", address, netio_strerror(err));
    netio_loop_destroy(loop);
    netio_window_destroy(window);
    return err < 0;
}
