// A chat by WebSocket in one program: a server with rooms, the page with which browsers use it, and
// a client for the terminal. A message is a line of text; "/join ROOM" is a command.
//
// A connection begins as HTTP: "/" is the page, "/ws?room=ROOM&name=NAME" becomes a WebSocket. For
// that the framing of the same connection changes: see `upgrade`. What is said is encoded once, and
// everybody in the room is sent the same bytes. Against bad clients and bad links:
//   - so many clients, and so many from one host; a request must be whole within some seconds
//   - messages have a longest length, and a client that sends too many is read more slowly; what is
//     no WebSocket, no UTF-8 or too long is told so (1002, 1007, 1009) and closed
//   - pages from elsewhere may not use it (Origin), unless --origin allows it
//   - who does not read is cut off when its queue is full, so it costs the others nothing
//   - after some silence a client gets a ping, and is gone if nothing comes in answer
//   - a room keeps its last lines, at most --history * --message bytes, until the last has left
// SIGTERM or SIGINT: all are told 1001, get what is queued for them within the grace time, and the
// last line tells how many came and what ended badly.
//
// Build  cc ws_chat.c -o ws_chat            (Windows: add -lws2_32)
//        cc -DNETIO_TLS_OPENSSL ws_chat.c -o ws_chat -lssl -lcrypto      for wss:// and https://
// Try    ./ws_chat 127.0.0.1:8080           a browser at http://127.0.0.1:8080, and
//        ./ws_chat connect 'ws://127.0.0.1:8080/ws?room=lobby' ann
#if !defined(NETIO_TLS_OPENSSL) && !defined(NETIO_TLS_NONE)
#define NETIO_TLS_NONE
#endif
#define NETIO_IMPLEMENTATION
#include "../../netio_tls.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_MOST = 16,
    MESSAGE_MOST = 65536, // of the server; its clients take what others send, up to 1 MiB
    HISTORY_MOST = 100,
    ROOMS_MOST = 100,
    NOTICES_MOST = 50, // in a larger room it is not told who comes and goes
    TICK_MS = 250
};

static double client_max = 1000, host_max = 100, message_max = 4096, rate = 10, history_max = 20;
static double queue_kib = 256, request_s = 10, silence_s = 30, grace_s = 5;
static const char *cert_file, *key_file, *ca_file, *origin; // NULL: not given

static const struct {
    const char *name, *what, **text; // text NULL: a number
    double *value, least, most;
} options[] = {
    {"--cert", "FILE  certificate, PEM: serve https:// and wss://", &cert_file, NULL, 0, 0},
    {"--key", "FILE  its key, if not in the same file", &key_file, NULL, 0, 0},
    {"--ca", "FILE  connect: trust this, not what the system trusts", &ca_file, NULL, 0, 0},
    {"--origin", "http://HOST  its pages may connect, too; \"any\": all may", &origin, NULL, 0, 0},
    {"--max", "clients", NULL, &client_max, 1, 1e6},
    {"--host-max", "clients from one host", NULL, &host_max, 1, 1e6},
    {"--message", "bytes of a message", NULL, &message_max, 16, MESSAGE_MOST},
    {"--messages", "messages a second from one client", NULL, &rate, 0.1, 1e6},
    {"--history", "lines that who comes is told", NULL, &history_max, 0, HISTORY_MOST},
    {"--queue", "KiB that wait for a client that does not read", NULL, &queue_kib, 64, 1 << 20},
    {"--request", "seconds for a whole request", NULL, &request_s, 0.1, 1e5},
    {"--silence", "seconds until a silent client is gone", NULL, &silence_s, 0.1, 1e5},
    {"--grace", "seconds for the last lines when it stops", NULL, &grace_s, 0.1, 1e5},
};
enum { OPTIONS = sizeof options / sizeof *options };

static netio_loop *loop;
static netio_tls_ctx *tls; // NULL: none

//------------------------------------------------------------------------------------------------
// The page
//------------------------------------------------------------------------------------------------

static const char page[] =
    "<!DOCTYPE html>\n"
    "<html lang='en'>\n"
    "<meta charset='utf-8'>\n"
    "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
    "<title>ws_chat</title>\n"
    "<link rel='stylesheet' href='/style.css'>\n"
    "<header><b id='title'>ws_chat</b> <span id='state'>not connected</span></header>\n"
    "<main id='log'></main>\n"
    "<form id='join'>\n"
    "<input id='name' placeholder='name' maxlength='16' pattern='[A-Za-z0-9_\\-]+' required>\n"
    "<input id='room' placeholder='room' maxlength='16' pattern='[A-Za-z0-9_\\-]+' required>\n"
    "<button>Join</button></form>\n"
    "<form id='talk' hidden>\n"
    "<input id='text' placeholder='message, or /join ROOM' maxlength='1000'>\n"
    "<button>Send</button></form>\n"
    "<script src='/chat.js'></script>\n"
    "</html>\n";

static const char style[] =
    "body { margin: 0 auto; max-width: 50rem; height: 100vh; display: flex;\n"
    "  flex-direction: column; font: 16px/1.5 system-ui, sans-serif; }\n"
    "header, form { padding: .7rem 1rem; background: #eef; display: flex; gap: .5rem; }\n"
    "form[hidden] { display: none; }\n"
    "#title, input { flex: 1; min-width: 0; }\n"
    "input, button { font: inherit; padding: .3rem .8rem; }\n"
    "main { flex: 1; overflow-y: auto; padding: .7rem 1rem; }\n"
    "p { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }\n"
    ".note { color: #778; } .own { color: #075; }\n";

// What others said becomes text in the page, never markup.
static const char script[] =
    "'use strict';\n"
    "const $ = (id) => document.getElementById(id);\n"
    "const given = new URLSearchParams(location.search);\n"
    "let socket = null, pause = 1000;\n"
    "$('name').value = given.get('name') || '';\n"
    "$('room').value = given.get('room') || 'lobby';\n"
    "\n"
    "function show(text) {\n"
    "  const line = document.createElement('p');\n"
    "  const now = /^\\* you are (\\S+) in (\\S+)$/.exec(text);\n"
    "  if (now) [, $('name').value, $('room').value] = now;\n"
    "  $('state').textContent = socket.readyState > 1 ? 'not connected' : $('name').value;\n"
    "  $('title').textContent = $('room').value;\n"
    "  line.textContent = text;\n"
    "  if (text.startsWith('* ')) line.className = 'note';\n"
    "  else if (text.startsWith($('name').value + ': ')) line.className = 'own';\n"
    "  $('log').append(line);\n"
    "  while ($('log').childElementCount > 500) $('log').firstElementChild.remove();\n"
    "  line.scrollIntoView();\n"
    "}\n"
    "\n"
    "function connect() {\n"
    "  const query = new URLSearchParams({ room: $('room').value, name: $('name').value });\n"
    "  socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws?' + query);\n"
    "  socket.onopen = () => { pause = 1000; };\n"
    "  socket.onmessage = (e) => show(e.data);\n"
    "  socket.onclose = (e) => {\n"
    "    show('* closed: ' + e.code + ' ' + e.reason);\n"
    "    setTimeout(connect, pause);\n"
    "    pause = Math.min(2 * pause, 30000);\n"
    "  };\n"
    "}\n"
    "\n"
    "$('join').onsubmit = (e) => {\n"
    "  e.preventDefault();\n"
    "  $('join').hidden = !($('talk').hidden = false);\n"
    "  $('text').focus();\n"
    "  connect();\n"
    "};\n"
    "$('talk').onsubmit = (e) => {\n"
    "  e.preventDefault();\n"
    "  if (socket.readyState !== WebSocket.OPEN) return;\n"
    "  socket.send($('text').value);\n"
    "  $('text').value = '';\n"
    "};\n";

static const struct {
    const char *path, *type, *text;
} files[] = {
    {"/", "text/html; charset=utf-8", page},
    {"/style.css", "text/css; charset=utf-8", style},
    {"/chat.js", "text/javascript; charset=utf-8", script},
};
enum { FILES = sizeof files / sizeof *files };

//------------------------------------------------------------------------------------------------
// Both roles: text, closing
//------------------------------------------------------------------------------------------------

// Nothing that steers a terminal, or begins another line and so looks as if another had said it:
// the control characters of ASCII, and those of Latin-1 (0xC2 0x80 to 0x9F), become blanks.
static void clean(uint8_t *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bool latin = i + 1 < len && text[i] == 0xC2 && text[i + 1] >= 0x80 && text[i + 1] < 0xA0;
        if (latin) text[i] = text[i + 1] = ' ';
        if (text[i] < ' ' || text[i] == 0x7F) text[i] = ' ';
    }
}

static void note(netio_conn c, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0) return;
    clean((uint8_t *)text, strlen(text));
    fprintf(stderr, "#%u %s\n", (unsigned)netio_conn_id(c), text);
}

static void send_type(netio_conn c, unsigned type, const void *data, size_t len)
{
    netio_frame frame = {.data = data, .len = len, .type = type};
    netio_conn_send_frame(c, &frame);
}

// Begins to close: the other side answers with a close frame.
static void send_close(netio_conn c, int code, const char *reason)
{
    char payload[125];
    ptrdiff_t len = netio_ws_close_write(payload, sizeof payload, code, reason);
    if (len >= 0) send_type(c, NETIO_WS_CLOSE, payload, (size_t)len);
}

// Asks after some silence; after more of it the connection is ended. Returns whether it was.
static bool end_if_silent(netio_conn c, netio_heartbeat *heart)
{
    int due = netio_heartbeat_tick(heart, netio_loop_now_ms(loop));
    if (due == NETIO_HEARTBEAT_PING) send_type(c, NETIO_WS_PING, NULL, 0);
    if (due != NETIO_HEARTBEAT_DEAD) return false;
    note(c, "no answer: gone");
    netio_conn_abort(c);
    return true;
}

// Names of clients and rooms: nothing that could be taken for the text around them.
static bool good_name(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return len > 0 && len <= NAME_MOST && !text[len];
}

//------------------------------------------------------------------------------------------------
// Server: speaking
//------------------------------------------------------------------------------------------------

// A frame as it goes to all who shall have it. It lives as long as a queue or a room has it.
typedef struct message {
    size_t refs, len;
    uint8_t bytes[];
} message;

typedef struct client client;
typedef struct room room;

struct client {
    netio_conn conn;
    char name[NAME_MOST + 1];
    room *room;           // NULL: it speaks HTTP still
    client *next, **link; // neighbours there: link points to what points to this one
    uint64_t since_ms;    // when it connected
    netio_heartbeat heart;
    netio_bucket bucket; // of frames
    netio_timer again;   // to read on, when it sent too many
};

struct room {
    char name[NAME_MOST + 1];
    client *members;
    size_t member_count, history_count;
    message *history[HISTORY_MOST]; // oldest first
};

static room rooms[ROOMS_MOST]; // those without members are free
static unsigned guest_count, late_count, slow_count;
static bool stopping;

static void message_release(void *user)
{
    message *m = user;
    if (--m->refs == 0) free(m);
}

// "NAME: TEXT", or TEXT alone. Gives one reference; NULL: no memory.
static message *message_make(const char *name, const void *data, size_t len)
{
    static uint8_t text[NAME_MOST + 3 + MESSAGE_MOST];
    netio_framing framing = netio_framing_websocket(false, sizeof text);
    netio_frame frame = {.data = text, .type = NETIO_WS_TEXT};
    if (*name) frame.len = (size_t)snprintf((char *)text, NAME_MOST + 3, "%s: ", name);
    memcpy(text + frame.len, data, len);
    frame.len += len;
    clean(text, frame.len);

    size_t cap = netio_encode_bound(&framing, frame.len);
    message *m = malloc(sizeof *m + cap);
    if (!m) return NULL;
    m->refs = 1;
    m->len = (size_t)netio_encode_into(m->bytes, cap, &framing, &frame);
    return m;
}

// on_close follows from the loop, never from inside this; so lists of clients do not change here.
static void send_message(client *to, message *m)
{
    int err = netio_conn_write_owned(to->conn, m->bytes, m->len, message_release, m);
    if (err == 0) m->refs++;
    if (err != NETIO_ENOBUFS) return; // stale: it is closing
    note(to->conn, "does not read: cut off");
    slow_count++;
    netio_conn_abort(to->conn);
}

static void tell(client *to, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    message *m = message_make("", text, strlen(text));
    if (!m) return; // without memory it is not said
    send_message(to, m);
    message_release(m);
}

// Takes the reference. With `keep` those who come later get it, too.
static void tell_room(room *r, message *m, bool keep)
{
    if (!m) return;
    for (client *to = r->members; to; to = to->next) send_message(to, m);
    if (!keep || history_max < 1) {
        message_release(m);
        return;
    }
    if (r->history_count == (size_t)history_max) {
        message_release(r->history[0]);
        memmove(r->history, r->history + 1, --r->history_count * sizeof *r->history);
    }
    r->history[r->history_count++] = m;
}

static void notice(room *r, const char *name, const char *what)
{
    char text[64];
    if (stopping || r->member_count > NOTICES_MOST) return;
    snprintf(text, sizeof text, "* %s %s", name, what);
    tell_room(r, message_make("", text, strlen(text)), false);
}

static void dismiss(client *me, int code, const char *reason)
{
    send_close(me->conn, code, reason);
    netio_conn_close(me->conn);
}

//------------------------------------------------------------------------------------------------
// Server: rooms
//------------------------------------------------------------------------------------------------

static void leave(client *me)
{
    room *r = me->room;
    if (!r) return;
    *me->link = me->next;
    if (me->next) me->next->link = me->link;
    me->room = NULL;
    if (--r->member_count > 0) {
        notice(r, me->name, "left");
        return;
    }
    for (size_t i = 0; i < r->history_count; i++) message_release(r->history[i]);
    r->history_count = 0;
}

// The room of that name, or a free one; NULL: there are too many.
static room *find_room(const char *name)
{
    room *found = NULL;
    for (room *r = rooms; r < rooms + ROOMS_MOST; r++) {
        if (r->member_count > 0 && strcmp(r->name, name) == 0) return r;
        if (r->member_count == 0) found = r;
    }
    if (found) snprintf(found->name, sizeof found->name, "%s", name);
    return found;
}

static void enter(client *me, room *r)
{
    leave(me);
    for (size_t i = 0; i < r->history_count; i++) send_message(me, r->history[i]);
    notice(r, me->name, "joined");
    me->room = r;
    me->next = r->members;
    me->link = &r->members;
    if (me->next) me->next->link = &me->next;
    r->members = me;
    r->member_count++;
    tell(me, "* you are %s in %s", me->name, r->name);
}

static bool name_in_use(const char *name)
{
    for (const room *r = rooms; r < rooms + ROOMS_MOST; r++) {
        for (const client *m = r->members; m; m = m->next) {
            if (strcmp(m->name, name) == 0) return true;
        }
    }
    return false;
}

// A name that is none, or somebody else's, becomes "guest" and a number.
static void set_name(client *me, const char *wanted)
{
    bool good = good_name(wanted) && !name_in_use(wanted);
    if (good) memcpy(me->name, wanted, strlen(wanted) + 1);
    while (!good) {
        snprintf(me->name, sizeof me->name, "guest%u", ++guest_count % 1000000);
        good = !name_in_use(me->name);
    }
}

static void join(client *me, const char *name)
{
    room *r = good_name(name) ? find_room(name) : NULL;
    if (!r) tell(me, "* %s", good_name(name) ? "there are too many rooms" : "no name of a room");
    else if (r != me->room) enter(me, r);
}

//------------------------------------------------------------------------------------------------
// Server: messages
//------------------------------------------------------------------------------------------------

static void take_text(client *me, const void *data, size_t len)
{
    char line[64];
    if (len == 0) return;
    if (*(const char *)data != '/') {
        tell_room(me->room, message_make(me->name, data, len), true);
        return;
    }
    snprintf(line, sizeof line, "%.*s", len < sizeof line ? (int)len : 63, (const char *)data);
    if (strncmp(line, "/join ", 6) == 0) join(me, line + 6);
    else tell(me, "* the only command is /join ROOM");
}

// What a frame costs is taken from the bucket after it: who sends too many waits before the next
// one is read, by TCP's own means, and loses none.
static void read_on(void *user)
{
    client *me = user;
    int wait_ms = netio_bucket_take(&me->bucket, 1, netio_loop_now_ms(loop));
    bool wait = wait_ms > 0 && netio_timer_once(&me->again, loop, wait_ms, read_on, me) == 0;
    if (wait) netio_conn_pause(me->conn);
    else netio_conn_resume(me->conn);
}

// Pings and closes are answered already.
static void on_message(netio_conn c, const netio_frame *frame)
{
    client *me = netio_conn_user(c);
    netio_heartbeat_seen(&me->heart, netio_loop_now_ms(loop));
    if (frame->type == NETIO_WS_TEXT) take_text(me, frame->data, frame->len);
    if (frame->type == NETIO_WS_BINARY) dismiss(me, 1003, "text only");
    if (frame->type == NETIO_WS_CLOSE) {
        note(c, "closes: %d", netio_ws_close_code(frame->data, frame->len));
    }
    read_on(me);
}

static void on_stop(netio_conn c) { dismiss(netio_conn_user(c), 1001, "the server stops"); }

static void on_close(netio_conn c, int err)
{
    client *me = netio_conn_user(c);
    netio_error why;
    if (err < 0 && netio_conn_error(c, &why) == 0) note(c, "ended: %s", why.text);
    else note(c, "ended");
    if (!me) return;
    leave(me);
    netio_timer_stop(me->again);
    free(me);
}

//------------------------------------------------------------------------------------------------
// Server: HTTP
//------------------------------------------------------------------------------------------------

static void respond(netio_conn c, const char *status, const char *type, const char *body)
{
    char head[512];
    int len =
        snprintf(head, sizeof head,
                 "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %u\r\n"
                 "Content-Security-Policy: default-src 'self'; connect-src 'self' ws: wss:\r\n"
                 "X-Content-Type-Options: nosniff\r\nCache-Control: no-cache\r\n"
                 "Allow: GET\r\nConnection: close\r\n\r\n",
                 status, type, (unsigned)strlen(body));
    netio_conn_write(c, head, (size_t)len);
    netio_conn_write(c, body, strlen(body));
}

static void refuse(netio_conn c, const char *status)
{
    note(c, "refused: %s", status);
    respond(c, status, "text/plain", status);
}

// The value of `key` in "a=1&b=2", without its NUL at most NAME_MOST + 1 bytes: then it is no name.
static void query_value(char out[NAME_MOST + 2], netio_buf query, const char *key)
{
    const char *at = query.data, *end = at + query.len;
    size_t key_len = strlen(key);
    out[0] = 0;
    while (at < end) {
        const char *stop = memchr(at, '&', (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);
        if (len > key_len && memcmp(at, key, key_len) == 0) {
            snprintf(out, NAME_MOST + 2, "%.*s", (int)(len - key_len), at + key_len);
            return;
        }
        at += len + 1;
    }
}

// Browsers say whose page it is that connects; others say nothing. The own page is good.
static bool good_origin(const netio_http_head *head)
{
    netio_buf from = netio_http_field(head, "Origin"), host = netio_http_field(head, "Host");
    char http[300], https[300]; // a longer host is not ours
    if (!from.data || (origin && strcmp(origin, "any") == 0)) return true;
    snprintf(http, sizeof http, "http://%.*s", (int)host.len, (const char *)host.data);
    snprintf(https, sizeof https, "https://%.*s", (int)host.len, (const char *)host.data);
    return netio_buf_equal(from, http) || netio_buf_equal(from, https) ||
           (origin && netio_buf_equal(from, origin));
}

// From HTTP to WebSocket. What the client has sent behind its request is read as frames. Returns
// whether it did; else the client was told why not.
static bool upgrade(client *me, const netio_http_head *head, netio_buf query)
{
    static const netio_handler chat = {
        .on_frame = on_message, .on_stop = on_stop, .on_close = on_close};
    char answer[512], name[NAME_MOST + 2], where[NAME_MOST + 2];
    size_t len;
    int err = netio_ws_answer(answer, sizeof answer, &len, head);
    netio_conn_write(me->conn, answer, len);
    if (err < 0) return false;
    netio_conn_set_framing(me->conn, netio_framing_websocket(false, (size_t)message_max));
    netio_conn_set_handler(me->conn, &chat);

    query_value(where, query, "room=");
    query_value(name, query, "name=");
    room *r = find_room(good_name(where) ? where : "lobby");
    set_name(me, name);
    note(me->conn, "is %s", me->name);
    if (r) enter(me, r);
    else dismiss(me, 1013, "too many rooms");
    return true;
}

// The framing found that this is no request. The connection closes after it.
static void on_bad_head(netio_conn c, const netio_frame *frame, int err)
{
    (void)frame;
    if (err == NETIO_EMSGSIZE) refuse(c, "431 Request Header Fields Too Large");
    else if (err != NETIO_ETRUNCATED) refuse(c, "400 Bad Request");
}

static void on_head(netio_conn c, const netio_frame *frame)
{
    netio_http_head head;
    netio_buf path = {NULL, 0}, query = {"", 0};
    int i = 0;
    if (netio_http_parse(&head, frame->data, frame->len) == 0) {
        const char *target = head.target.data, *end = target + head.target.len;
        const char *mark = memchr(target, '?', head.target.len);
        path = (netio_buf){target, (size_t)((mark ? mark : end) - target)};
        if (mark) query = (netio_buf){mark + 1, (size_t)(end - mark - 1)};
    }
    bool is_ws = netio_buf_equal(path, "/ws");
    while (i < FILES && !netio_buf_equal(path, files[i].path)) i++;

    if (!path.data) refuse(c, "400 Bad Request");
    else if (!is_ws && i == FILES) refuse(c, "404 Not Found");
    else if (!netio_buf_equal(head.method, "GET")) refuse(c, "405 Method Not Allowed");
    else if (!is_ws) respond(c, "200 OK", files[i].type, files[i].text);
    else if (!good_origin(&head)) refuse(c, "403 Forbidden");
    else if (upgrade(netio_conn_user(c), &head, query)) return;
    netio_conn_close(c);
}

static void on_open(netio_conn c)
{
    client *me = calloc(1, sizeof *me);
    if (!me) {
        netio_conn_abort(c);
        return;
    }
    me->conn = c;
    me->since_ms = netio_loop_now_ms(loop);
    me->heart.interval_ms = (int)(silence_s * 1000 / 2);
    me->heart.limit_ms = me->heart.interval_ms;
    me->bucket.rate = rate;
    netio_conn_set_user(c, me);
}

//------------------------------------------------------------------------------------------------
// Server: the rest
//------------------------------------------------------------------------------------------------

static void look_after(void *unused, netio_conn c)
{
    uint64_t now_ms = netio_loop_now_ms(loop);
    client *me = netio_conn_user(c);
    (void)unused;
    if (!me) return; // still in the handshake of TLS
    if (!me->room) {
        if (now_ms - me->since_ms < (uint64_t)(request_s * 1000)) return;
        note(c, "no request");
        late_count++;
        netio_conn_abort(c);
        return;
    }
    // A ping would wait behind what is queued: while it moves the client is there, and if it does
    // not, the connection's write timeout ends it.
    if (netio_conn_pending(c) > 0) netio_heartbeat_seen(&me->heart, now_ms);
    if (end_if_silent(c, &me->heart)) late_count++;
}

static void on_tick(void *unused)
{
    (void)unused;
    netio_conn_each(loop, look_after, NULL);
}

static void on_signal(void *unused)
{
    (void)unused;
    stopping = true;
    netio_loop_finish(loop, (int)(grace_s * 1000)); // a second signal stops at once
}

static int serve(const char *address)
{
    static const netio_handler http = {
        .on_open = on_open, .on_frame = on_head, .on_bad_frame = on_bad_head, .on_close = on_close};
    netio_listener_opts opts = {0};
    netio_listener listener;
    netio_stats s = {0};
    netio_addr local;
    char text[NETIO_ADDR_TEXT];
    opts.conn_max = (size_t)client_max;
    opts.conn_max_per_host = (size_t)host_max;
    opts.conn.framing = netio_framing_http_head(0);
    opts.conn.handshake_timeout_ms = (int)(request_s * 1000);
    double queue = queue_kib * 1024, told = history_max * (message_max + 64);
    opts.conn.write_queue_max = (size_t)(queue > told ? queue : told); // all of that comes at once
    if (tls) opts.conn.filter = netio_tls_filter(tls);
    else opts.refusal = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n";

    int err = netio_listener_open(&listener, loop, address, &http, &opts);
    if (err == 0) err = netio_timer_every(NULL, loop, TICK_MS, on_tick, NULL);
    if (err == 0) err = netio_listener_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, text, sizeof text);
    if (err >= 0) {
        printf("listening on %s\n", text);
        fflush(stdout);
        err = netio_loop_run(loop);
        netio_loop_stats(loop, &s);
        printf("%.0f came, %.0f refused, %.0f malformed, %.0f too large, %u late, %u slow\n",
               (double)s.accepted, (double)s.refused, (double)s.protocol_errors,
               (double)s.limit_errors, late_count, slow_count);
    }
    if (err < 0) fprintf(stderr, "ws_chat: %s: %s\n", address, netio_strerror(err));
    return err < 0;
}

//------------------------------------------------------------------------------------------------
// Client: the input, as something to watch and read without waiting
//------------------------------------------------------------------------------------------------

#if defined(_WIN32)
#include <windows.h>
#include <process.h>

// A console, a pipe or a file cannot be polled here, so a thread reads it and passes the bytes
// through a pair of sockets, whose buffers are the back-pressure.
static netio_socket input[2]; // [0] is for the loop, [1] for the thread

static unsigned __stdcall pump_input(void *unused)
{
    static char buf[4096];
    HANDLE from = GetStdHandle(STD_INPUT_HANDLE);
    DWORD n;
    (void)unused;
    while (ReadFile(from, buf, sizeof buf, &n, NULL) && n > 0) {
        if (netio_send_all(input[1], buf, n, NULL, -1) < 0) break;
    }
    netio_close(&input[1]);
    return 0;
}

static int input_open(netio_socket *out)
{
    int err = netio_pair(input, NETIO_STREAM);
    if (err < 0) return err;
    *out = input[0];
    return _beginthreadex(NULL, 0, pump_input, NULL, 0, NULL) ? 0 : NETIO_ENOMEM;
}

static ptrdiff_t input_read(void *buf, size_t cap) { return netio_recv(input[0], buf, cap, 0); }

#else
#include <unistd.h>

static int input_open(netio_socket *out)
{
    *out = STDIN_FILENO;
    return 0;
}

static ptrdiff_t input_read(void *buf, size_t cap) { return read(STDIN_FILENO, buf, cap); }
#endif

//------------------------------------------------------------------------------------------------
// Client
//------------------------------------------------------------------------------------------------

static struct {
    netio_conn conn;
    char host[280], address[300], target[600], key[25];
    bool secure, ended, told, failed; // ended: its input; told: a close frame came
    netio_socket input;
    netio_watch watch;   // of the input
    netio_decoder lines; // of the input
    netio_heartbeat heart;
} self;

// "ws://host[:port][/path][?query]"; the name joins the query.
static bool parse_url(const char *url, const char *name)
{
    self.secure = strncmp(url, "wss://", 6) == 0;
    if (!self.secure && strncmp(url, "ws://", 5) != 0) return false;
    const char *host = url + (self.secure ? 6 : 5), *rest = host + strcspn(host, "/?#");
    if (rest == host || rest - host >= (ptrdiff_t)sizeof self.host || strchr(rest, '#'))
        return false;
    snprintf(self.host, sizeof self.host, "%.*s", (int)(rest - host), host);
    const char *colon = strrchr(self.host, ':'), *bracket = strrchr(self.host, ']');
    bool has_port = colon && (!bracket || colon > bracket);
    const char *port = has_port ? "" : self.secure ? ":443" : ":80";
    snprintf(self.address, sizeof self.address, "%s%s", self.host, port);
    int n = snprintf(self.target, sizeof self.target, "%s%s%sname=%s", *rest == '/' ? "" : "/",
                     rest, strchr(rest, '?') ? "&" : "?", name);
    return n > 0 && (size_t)n < sizeof self.target;
}

static void fail(const char *what)
{
    fprintf(stderr, "ws_chat: %s\n", what);
    self.failed = true;
}

// Lines become messages. At the end of the input it begins to close: what was sent before is still
// answered. A file is read on without asking the loop, as kqueue does not report the end of one.
static void take_input(void *unused)
{
    char buf[4096];
    netio_frame line;
    int r, reads = 0, most = 64; // then others have their turn
    (void)unused;
    if (self.ended) return;
    for (; reads < most && !netio_conn_congested(self.conn); reads++) {
        uint32_t state = 0;
        if (netio_wait(self.input, NETIO_EV_READ, 0) <= 0) break;
        ptrdiff_t n = input_read(buf, sizeof buf);
        if (n > 0) netio_decoder_feed(&self.lines, buf, (size_t)n);
        else netio_decoder_end(&self.lines);
        while ((r = netio_decoder_next(&self.lines, &line)) > 0) {
            if (netio_utf8_check(&state, line.data, line.len, NULL) < 0 || state != 0) break;
            netio_conn_send(self.conn, line.data, line.len);
        }
        if (r == 0) continue;
        if (r != NETIO_EOF)
            fail(r > 0 ? "the input is no UTF-8" : "a line of the input is too long");
        netio_watch_stop(self.watch);
        self.ended = true;
        send_close(self.conn, 1000, NULL);
        return;
    }
    netio_watch_modify(self.watch, netio_conn_congested(self.conn) ? 0 : NETIO_EV_READ);
    if (reads == most) netio_loop_post(loop, take_input, NULL, NULL, 0);
}

static void on_input(void *unused, unsigned events)
{
    (void)events;
    take_input(unused);
}

static void on_drain(netio_conn c)
{
    (void)c;
    take_input(NULL);
}

static void on_reply(netio_conn c, const netio_frame *frame)
{
    netio_heartbeat_seen(&self.heart, netio_loop_now_ms(loop));
    if (frame->type == NETIO_WS_TEXT) {
        uint8_t *text = malloc(frame->len + 1);
        if (!text) return;
        memcpy(text, frame->data, frame->len);
        clean(text, frame->len);
        fwrite(text, 1, frame->len, stdout);
        putchar('\n');
        fflush(stdout);
        free(text);
    } else if (frame->type == NETIO_WS_CLOSE) {
        int code = netio_ws_close_code(frame->data, frame->len);
        if (frame->len <= 2) note(c, "closed: %d", code);
        else note(c, "closed: %d %.*s", code, (int)frame->len - 2, (const char *)frame->data + 2);
        self.told = true;
        if (code != 1000 && code != 1001) self.failed = true;
    }
}

static void on_client_tick(void *unused)
{
    (void)unused;
    end_if_silent(self.conn, &self.heart);
}

static void on_leave(netio_conn c) { send_close(c, 1000, NULL); } // and wait for the answer

static void on_end(netio_conn c, int err)
{
    netio_error why;
    if (err < 0 && netio_conn_error(c, &why) == 0) fail(why.text);
    else if (!self.told && !self.failed) fail("the connection ended without a word");
    netio_loop_stop(loop);
}

// The server's answer: from HTTP to WebSocket.
static void on_answer(netio_conn c, const netio_frame *frame)
{
    static const netio_handler talking = {
        .on_frame = on_reply, .on_drain = on_drain, .on_stop = on_leave, .on_close = on_end};
    netio_http_head head;
    netio_framing framing = netio_framing_websocket(true, 1 << 20);
    char text[64] = "no WebSocket there";
    int err = netio_http_parse(&head, frame->data, frame->len);
    if (err == 0) err = netio_ws_check(&head, self.key);
    if (err == NETIO_ECONNREFUSED)
        snprintf(text, sizeof text, "no WebSocket there: status %d", head.status);
    if (err < 0) {
        fail(text);
        netio_conn_close(c);
        return;
    }
    framing.type = NETIO_WS_TEXT; // what netio_conn_send sends
    netio_conn_set_framing(c, framing);
    netio_conn_set_handler(c, &talking);
    netio_conn_set_timeout(c, NETIO_TIMEOUT_IDLE, 0);
    self.heart.interval_ms = self.heart.limit_ms = (int)(silence_s * 1000 / 2);
    netio_timer_every(NULL, loop, TICK_MS, on_client_tick, NULL);
    err = input_open(&self.input);
    if (err == 0) err = netio_watch_start(&self.watch, loop, self.input, 0, on_input, NULL);
    if (err == 0) {
        take_input(NULL);
        return;
    }
    fail(netio_strerror(err));
    netio_conn_close(c);
}

static void ask(netio_conn c)
{
    char request[1200];
    ptrdiff_t n = netio_ws_request(request, sizeof request, self.host, self.target, self.key);
    if (n >= 0) {
        netio_conn_write(c, request, (size_t)n);
        return;
    }
    fail(netio_strerror(n));
    netio_conn_abort(c);
}

static int converse(void)
{
    static const netio_handler asking = {.on_open = ask, .on_frame = on_answer, .on_close = on_end};
    netio_dial_opts opts = {.timeout_ms = (int)(request_s * 1000)};
    opts.conn.framing = netio_framing_http_head(0);
    opts.conn.idle_timeout_ms = opts.timeout_ms;
    opts.conn.read_always = true; // what we owe must not stop what we are told
    if (tls) opts.conn.filter = netio_tls_filter(tls);
    int err = netio_decoder_init(&self.lines, netio_framing_line(MESSAGE_MOST), NULL, 0);
    if (err == 0) err = netio_conn_dial(&self.conn, loop, self.address, &asking, &opts);
    if (err == 0) err = netio_loop_run(loop);
    if (err < 0) fail(netio_strerror(err));
    netio_decoder_free(&self.lines);
    return self.failed;
}

//------------------------------------------------------------------------------------------------
// The program
//------------------------------------------------------------------------------------------------

static int usage(void)
{
    fprintf(stderr, "usage: ws_chat [OPTION VALUE]... [ADDRESS]\n"
                    "       ws_chat connect [OPTION VALUE]... ws://HOST:PORT/ws?room=ROOM NAME\n");
    for (int i = 0; i < OPTIONS; i++) {
        fprintf(stderr, "  %-10s %s", options[i].name, options[i].what);
        if (options[i].value) fprintf(stderr, " (%g)", *options[i].value);
        fputc('\n', stderr);
    }
    return 2;
}

static bool set_option(const char *name, const char *text)
{
    int i = 0;
    while (i < OPTIONS && strcmp(options[i].name, name) != 0) i++;
    if (i == OPTIONS || !text) return false;
    if (options[i].text) {
        *options[i].text = text;
        return true;
    }
    char *end;
    *options[i].value = strtod(text, &end);
    return end > text && *end == 0 && *options[i].value >= options[i].least &&
           *options[i].value <= options[i].most;
}

static int start_tls(void)
{
    netio_tls_config cfg = {.cert_file = cert_file, .key_file = key_file, .ca_file = ca_file};
    netio_tls_error why = {0};
    int err = netio_tls_ctx_create(&tls, &cfg, &why);
    if (err == NETIO_ENOTSUP) {
        fprintf(stderr, "ws_chat: built without TLS: see the top of ws_chat.c\n");
    } else if (err < 0) {
        fprintf(stderr, "ws_chat: %s\n", why.text[0] ? why.text : netio_strerror(err));
    }
    return err;
}

int main(int argc, char **argv)
{
    const char *words[3] = {":8080", NULL, NULL};
    int count = 0, failed = 1;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-' ? !set_option(argv[i], argv[i + 1]) : count == 3) return usage();
        if (argv[i][0] == '-') i++;
        else words[count++] = argv[i];
    }
    bool connect = strcmp(words[0], "connect") == 0;
    if (connect ? count != 3 : count > 1) return usage();
    if (connect && (!good_name(words[2]) || !parse_url(words[1], words[2]))) return usage();
    if ((connect ? self.secure : cert_file != NULL) && start_tls() < 0) return 1;

    int err = netio_loop_create(&loop, NULL);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGINT, on_signal, NULL);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGTERM, on_signal, NULL);
    if (err == 0) failed = connect ? converse() : serve(words[0]);
    else fprintf(stderr, "ws_chat: %s\n", netio_strerror(err));
    netio_loop_destroy(loop);
    netio_tls_ctx_unref(tls);
    return failed;
}
