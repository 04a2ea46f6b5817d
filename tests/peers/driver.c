// A command interpreter over netio's public calls: with it a script can play netio against any
// other program, look at the result and look at the process from outside.
//
//     driver 'connect s 192.0.2.1:80 3000' 'sendall s text:hello 1000' 'recv s 100 1000'
//     driver -            reads commands from standard input, one a line, until its end
//
// Each command answers with one line: the error's name, the time that the call took, the OS's code
// if it failed, then what there is to say:
//
//     ECONNREFUSED ms=0 os=111 verdict=ECONNREFUSED attempts=1 tried=192.0.2.1:80/ECONNREFUSED
//
// A socket has any word as its name. DATA is text:WORD, hex:00ff, zero:COUNT, random:COUNT:SEED or
// file:PATH. OPTIONS are words such as type=dgram, local=127.0.0.2:0 or set=NODELAY:1: see option()
// below, and the table of commands at the end. The exit code is 1 if a command failed, 2 if one
// made no sense.
//
// Build: cc -I../.. driver.c -o driver          (Windows: -lws2_32)
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(_WIN32)
#include <io.h>
#endif

enum { MAX_ARGS = 40, MAX_SLOTS = 512, MAX_PIECES = 36, ECHO_BUF = 65536 };

typedef struct slot {
    char name[24]; // empty: free
    netio_socket s;
} slot;

typedef struct blob {
    unsigned char *data; // from malloc
    size_t len;
} blob;

typedef struct options {
    netio_socket_opts opts;
    netio_setting settings[16];
    const char *fallback[NETIO_RESOLVE_MAX];
    netio_error errors[NETIO_RESOLVE_MAX + 1];
} options;

static slot slots[MAX_SLOTS];
static netio_poller *poller;
static char said[65536]; // what the running command has to say
static size_t said_len;
static int os_code; // netio_os_error() behind it, read before anything can change it
static bool os_known;

// --- words in and out --------------------------------------------------------------------------

static void die(const char *what, const char *word)
{
    printf("? %s: %s\n", what, word);
    exit(2);
}

static void note_os_error(void)
{
    if (!os_known) os_code = netio_os_error();
    os_known = true;
}

static void say(const char *format, ...)
{
    va_list args;
    int n;
    note_os_error();
    if (said_len + 1 >= sizeof said) return;
    va_start(args, format);
    n = vsnprintf(said + said_len, sizeof said - said_len, format, args);
    va_end(args);
    if (n > 0) said_len += (size_t)n;
    if (said_len >= sizeof said) said_len = sizeof said - 1;
}

static void say_addr(const char *key, const netio_addr *a)
{
    char text[NETIO_ADDR_TEXT];
    if (netio_addr_format(a, text, sizeof text) < 0) strcpy(text, "-");
    say(" %s=%s", key, text);
}

static long long number(const char *word)
{
    char *end;
    long long n = strtoll(word, &end, 0);
    if (end == word || *end != '\0') die("not a number", word);
    return n;
}

static int integer(const char *word) { return (int)number(word); }

static size_t size(const char *word)
{
    long long n = number(word);
    if (n < 0) die("not a size", word);
    return (size_t)n;
}

static slot *find(const char *name)
{
    int i;
    for (i = 0; i < MAX_SLOTS; i++)
        if (strcmp(slots[i].name, name) == 0) return &slots[i];
    die("no such socket", name);
    return NULL;
}

static slot *make(const char *name)
{
    int i, empty = -1;
    if (strlen(name) >= sizeof slots[0].name) die("name too long", name);
    for (i = MAX_SLOTS - 1; i >= 0; i--) {
        if (strcmp(slots[i].name, name) == 0) return &slots[i];
        if (slots[i].name[0] == '\0') empty = i;
    }
    if (empty < 0) die("too many sockets", name);
    strcpy(slots[empty].name, name);
    slots[empty].s = NETIO_INVALID_SOCKET;
    return &slots[empty];
}

// A new socket under `name`: kept on success only, as netio leaves its output alone otherwise.
static int keep(const char *name, netio_socket s, int err)
{
    if (err >= 0 || err == NETIO_EINPROGRESS) make(name)->s = s;
    return err;
}

static netio_addr address(const char *text)
{
    netio_addr a;
    int err = netio_addr_parse(&a, text, strlen(text));
    if (err < 0) die(netio_errname(err), text);
    return a;
}

// --- bytes -------------------------------------------------------------------------------------

// CRC-32 of ISO 3309, which zlib.crc32() of the scripts computes too.
static uint32_t crc32_add(uint32_t crc, const void *data, size_t len)
{
    static uint32_t table[256];
    const unsigned char *p = (const unsigned char *)data;
    uint32_t i, j, c;
    if (table[1] == 0)
        for (i = 0; i < 256; i++) {
            for (c = i, j = 0; j < 8; j++) c = (c & 1) ? (c >> 1) ^ 0xedb88320u : c >> 1;
            table[i] = c;
        }
    for (crc = ~crc; len > 0; len--) crc = (crc >> 8) ^ table[(crc ^ *p++) & 0xff];
    return ~crc;
}

static void say_bytes(const void *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    size_t i;
    say(" n=%lu crc=%08lx", (unsigned long)len, (unsigned long)crc32_add(0, data, len));
    if (len == 0 || len > 512) return;
    say(" hex=");
    for (i = 0; i < len; i++) say("%02x", p[i]);
}

static blob room(size_t len)
{
    blob b;
    b.data = (unsigned char *)malloc(len + 1);
    b.len = len;
    if (b.data == NULL) die("no memory", "");
    return b;
}

static blob data(const char *word)
{
    const char *arg = strchr(word, ':');
    blob b;
    size_t i;
    if (arg == NULL) die("not data", word);
    arg++;
    if (strncmp(word, "text:", 5) == 0) {
        b = room(strlen(arg));
        memcpy(b.data, arg, b.len);
    } else if (strncmp(word, "hex:", 4) == 0) {
        b = room(strlen(arg) / 2);
        for (i = 0; i < b.len; i++) {
            char two[3] = {arg[2 * i], arg[2 * i + 1], '\0'};
            b.data[i] = (unsigned char)strtoul(two, NULL, 16);
        }
    } else if (strncmp(word, "zero:", 5) == 0) {
        b = room(size(arg));
        memset(b.data, 0, b.len);
    } else if (strncmp(word, "random:", 7) == 0) {
        const char *seed = strchr(arg, ':');
        uint32_t x = seed == NULL ? 1 : (uint32_t)strtoul(seed + 1, NULL, 0) * 2u + 1u;
        b = room((size_t)strtoul(arg, NULL, 0));
        for (i = 0; i < b.len; i++) {
            x ^= x << 13, x ^= x >> 17, x ^= x << 5;
            b.data[i] = (unsigned char)(x >> 11);
        }
    } else {
        FILE *f = strncmp(word, "file:", 5) == 0 ? fopen(arg, "rb") : NULL;
        long end = f != NULL && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
        if (end < 0) die("not data", word);
        rewind(f);
        b = room((size_t)end);
        if (fread(b.data, 1, b.len, f) != b.len) die("cannot read", word);
        fclose(f);
    }
    return b;
}

// --- options -----------------------------------------------------------------------------------

static int option_number(const char *name)
{
    int i;
    for (i = 1; i < 200; i++)
        if (strcmp(netio_option_name(i), name) == 0) return i;
    die("no such option", name);
    return 0;
}

static bool option_is_text(int option)
{
    return option == NETIO_OPT_CONGESTION || option == NETIO_OPT_DEVICE;
}

static int type(const char *word)
{
    if (strcmp(word, "stream") == 0) return NETIO_STREAM;
    if (strcmp(word, "dgram") == 0) return NETIO_DGRAM;
    if (strcmp(word, "seqpacket") == 0) return NETIO_SEQPACKET;
    die("no such type", word);
    return 0;
}

// "set=NODELAY:1": one more setting. Cuts the word in two.
static void setting(options *o, char *word)
{
    netio_setting *set = &o->settings[o->opts.setting_count];
    char *value = strchr(word, ':');
    if (value == NULL || o->opts.setting_count == 16) die("not a setting", word);
    *value++ = '\0';
    set->option = option_number(word);
    if (option_is_text(set->option)) set->text = value;
    else set->value = integer(value);
    o->opts.settings = o->settings;
    o->opts.setting_count++;
}

static void option(options *o, char *word)
{
    netio_socket_opts *opts = &o->opts;
    char *value = strchr(word, '=');
    if (value == NULL) die("not key=value", word);
    *value++ = '\0';
    if (strcmp(word, "type") == 0) opts->type = type(value);
    else if (strcmp(word, "family") == 0) opts->family = opts->resolve.family = integer(value);
    else if (strcmp(word, "backlog") == 0) opts->backlog = integer(value);
    else if (strcmp(word, "mode") == 0) opts->unix_mode = integer(value);
    else if (strcmp(word, "balance") == 0) opts->balance = integer(value) != 0;
    else if (strcmp(word, "share") == 0) opts->share_group = integer(value) != 0;
    else if (strcmp(word, "exclusive") == 0) opts->exclusive = integer(value) != 0;
    else if (strcmp(word, "v6only") == 0) opts->v6_only = integer(value) != 0;
    else if (strcmp(word, "inheritable") == 0) opts->inheritable = integer(value) != 0;
    else if (strcmp(word, "local") == 0) opts->local = value;
    else if (strcmp(word, "stagger") == 0) opts->stagger_ms = integer(value);
    else if (strcmp(word, "set") == 0) setting(o, value);
    else if (strcmp(word, "fallback") == 0) o->fallback[opts->fallback_count++] = value;
    else die("no such option", word);
}

static const netio_socket_opts *parse_options(options *o, char **words, int count)
{
    memset(o, 0, sizeof *o);
    o->opts.fallback = o->fallback;
    o->opts.errors = o->errors;
    o->opts.error_cap = sizeof o->errors / sizeof o->errors[0];
    while (count-- > 0) option(o, *words++);
    return &o->opts;
}

// --- commands: argv[0] is the command's name, the result is what netio returned ----------------

static ptrdiff_t do_listen(int argc, char **argv)
{
    options o;
    netio_addr a;
    netio_socket s = NETIO_INVALID_SOCKET;
    int err = netio_listen(&s, argv[2], parse_options(&o, argv + 3, argc - 3));
    if (keep(argv[1], s, err) == 0 && netio_local_addr(s, &a) == 0) say_addr("addr", &a);
    return err;
}

static ptrdiff_t do_bind(int argc, char **argv)
{
    options o;
    netio_addr a;
    netio_socket s = NETIO_INVALID_SOCKET;
    const char *where = strcmp(argv[2], "-") == 0 ? NULL : argv[2];
    int err = netio_bind(&s, where, parse_options(&o, argv + 3, argc - 3));
    if (keep(argv[1], s, err) == 0 && netio_local_addr(s, &a) == 0) say_addr("addr", &a);
    return err;
}

static ptrdiff_t do_connect(int argc, char **argv)
{
    options o;
    netio_addr a;
    size_t i, attempts = 0;
    netio_socket s = NETIO_INVALID_SOCKET;
    const netio_socket_opts *opts = parse_options(&o, argv + 4, argc - 4);
    int err = netio_connect(&s, argv[2], opts, integer(argv[3]));
    if (keep(argv[1], s, err) == 0) {
        if (netio_local_addr(s, &a) == 0) say_addr("local", &a);
        if (netio_peer_addr(s, &a) == 0) say_addr("peer", &a);
        return 0;
    }
    for (i = 1; i <= NETIO_RESOLVE_MAX && o.errors[i].err != 0; i++) attempts++;
    say(" verdict=%s attempts=%lu tried=", netio_errname(o.errors[0].err), (unsigned long)attempts);
    for (i = 1; i <= attempts; i++) {
        char text[NETIO_ADDR_TEXT] = "-";
        netio_addr_format(&o.errors[i].addr, text, sizeof text);
        say("%s%s/%s", i > 1 ? "," : "", text, netio_errname(o.errors[i].err));
    }
    return err;
}

static ptrdiff_t do_start(int argc, char **argv)
{
    options o;
    netio_addr a = address(argv[2]);
    netio_socket s = NETIO_INVALID_SOCKET;
    const netio_socket_opts *opts = parse_options(&o, argv + 3, argc - 3);
    int err = netio_connect_start(&s, &a, opts);
    if (err == NETIO_EINPROGRESS) say(" pending=1");
    keep(argv[1], s, err);
    return err == NETIO_EINPROGRESS ? 0 : err;
}

static ptrdiff_t do_finish(int argc, char **argv)
{
    (void)argc;
    return netio_connect_finish(find(argv[1])->s, integer(argv[2]));
}

static ptrdiff_t do_accept(int argc, char **argv)
{
    netio_addr peer;
    netio_socket s = NETIO_INVALID_SOCKET;
    int err = netio_accept(&s, find(argv[2])->s, &peer, integer(argv[3]));
    (void)argc;
    if (keep(argv[1], s, err) == 0) say_addr("peer", &peer);
    return err;
}

static ptrdiff_t do_pair(int argc, char **argv)
{
    netio_socket s[2];
    int err = netio_pair(s, argc > 3 ? type(argv[3]) : NETIO_STREAM);
    if (err < 0) return err;
    keep(argv[1], s[0], 0);
    keep(argv[2], s[1], 0);
    return 0;
}

// adopt NAME DESCRIPTOR: one that the parent process left open for us.
static ptrdiff_t do_adopt(int argc, char **argv)
{
    netio_socket s = (netio_socket)number(argv[2]);
    unsigned found = 0;
    int err = netio_adopt(s, &found);
    (void)argc;
    if (keep(argv[1], s, err) == 0) say(" found=%u", found);
    return err;
}

static ptrdiff_t do_release(int argc, char **argv)
{
    slot *at = find(argv[1]);
    int err = netio_release(at->s, (unsigned)number(argv[2]));
    (void)argc;
    if (err == 0) at->name[0] = '\0';
    return err;
}

static ptrdiff_t do_fd(int argc, char **argv)
{
    (void)argc;
    say(" fd=%ld", (long)find(argv[1])->s);
    return 0;
}

static ptrdiff_t do_close(int argc, char **argv)
{
    slot *at = find(argv[1]);
    int err = netio_close(&at->s);
    (void)argc;
    if (at->s == NETIO_INVALID_SOCKET) at->name[0] = '\0';
    return err;
}

static ptrdiff_t do_graceful(int argc, char **argv)
{
    slot *at = find(argv[1]);
    int err = netio_close_gracefully(&at->s, size(argv[2]), integer(argv[3]));
    (void)argc;
    if (at->s == NETIO_INVALID_SOCKET) at->name[0] = '\0';
    return err;
}

static ptrdiff_t do_abort(int argc, char **argv)
{
    slot *at = find(argv[1]);
    int err = netio_abort(&at->s);
    (void)argc;
    if (at->s == NETIO_INVALID_SOCKET) at->name[0] = '\0';
    return err;
}

static ptrdiff_t do_shutdown(int argc, char **argv)
{
    const char *how = argv[2];
    (void)argc;
    return netio_shutdown(find(argv[1])->s, strcmp(how, "read") == 0    ? NETIO_SHUT_READ
                                            : strcmp(how, "write") == 0 ? NETIO_SHUT_WRITE
                                                                        : NETIO_SHUT_BOTH);
}

static ptrdiff_t do_local(int argc, char **argv)
{
    netio_addr a;
    int err = netio_local_addr(find(argv[1])->s, &a);
    (void)argc;
    if (err == 0) say_addr("addr", &a);
    return err;
}

static ptrdiff_t do_peer(int argc, char **argv)
{
    netio_addr a;
    int err = netio_peer_addr(find(argv[1])->s, &a);
    (void)argc;
    if (err == 0) say_addr("addr", &a);
    return err;
}

// "rw1e": read, write, one-shot, edge; "-": nothing.
static unsigned events(const char *word)
{
    unsigned bits = 0;
    if (strchr(word, 'r')) bits |= NETIO_EV_READ;
    if (strchr(word, 'w')) bits |= NETIO_EV_WRITE;
    if (strchr(word, '1')) bits |= NETIO_EV_ONESHOT;
    if (strchr(word, 'e')) bits |= NETIO_EV_EDGE;
    return bits;
}

static void say_events(const char *key, unsigned bits)
{
    say(" %s=%s%s", key, bits & NETIO_EV_READ ? "r" : "", bits & NETIO_EV_WRITE ? "w" : "");
}

static ptrdiff_t do_wait(int argc, char **argv)
{
    int got = netio_wait(find(argv[1])->s, events(argv[2]), integer(argv[3]));
    (void)argc;
    if (got > 0) say_events("events", (unsigned)got);
    return got;
}

static ptrdiff_t do_send(int argc, char **argv)
{
    blob b = data(argv[2]);
    ptrdiff_t n = netio_send(find(argv[1])->s, b.data, b.len, integer(argv[3]));
    (void)argc;
    if (n >= 0) say(" n=%ld", (long)n);
    free(b.data);
    return n;
}

static ptrdiff_t do_sendall(int argc, char **argv)
{
    blob b = data(argv[2]);
    size_t done = 0;
    int err = netio_send_all(find(argv[1])->s, b.data, b.len, &done, integer(argv[3]));
    (void)argc;
    say(" done=%lu crc=%08lx", (unsigned long)done, (unsigned long)crc32_add(0, b.data, done));
    free(b.data);
    return err;
}

static ptrdiff_t do_sendv(int argc, char **argv)
{
    blob parts[MAX_PIECES];
    netio_buf bufs[MAX_PIECES];
    size_t i, done = 0, count = (size_t)argc - 3;
    ptrdiff_t n;
    for (i = 0; i < count; i++) {
        parts[i] = data(argv[3 + i]);
        bufs[i].data = parts[i].data;
        bufs[i].len = parts[i].len;
    }
    if (strcmp(argv[0], "sendv") == 0) {
        n = netio_sendv(find(argv[1])->s, bufs, count, integer(argv[2]));
        done = n > 0 ? (size_t)n : 0;
    } else {
        n = netio_sendv_all(find(argv[1])->s, bufs, count, &done, integer(argv[2]));
    }
    say(" done=%lu", (unsigned long)done);
    for (i = 0; i < count; i++) free(parts[i].data);
    return n;
}

static ptrdiff_t do_recv(int argc, char **argv)
{
    blob b = room(size(argv[2]));
    netio_socket s = find(argv[1])->s;
    ptrdiff_t n = strcmp(argv[0], "peek") == 0 ? netio_peek(s, b.data, b.len, integer(argv[3]))
                                               : netio_recv(s, b.data, b.len, integer(argv[3]));
    (void)argc;
    if (n >= 0) say_bytes(b.data, (size_t)n);
    free(b.data);
    return n;
}

static ptrdiff_t do_recvv(int argc, char **argv)
{
    blob parts[MAX_PIECES];
    netio_room rooms[MAX_PIECES];
    size_t i, left, count = (size_t)argc - 3;
    ptrdiff_t n;
    memset(rooms, 0, sizeof rooms);
    for (i = 0; i < count; i++) {
        parts[i] = room(size(argv[3 + i]));
        rooms[i].data = parts[i].data;
        rooms[i].cap = parts[i].len;
    }
    n = netio_recvv(find(argv[1])->s, rooms, count, integer(argv[2]));
    left = n > 0 ? (size_t)n : 0;
    for (i = 0; i < count; i++) {
        size_t part = left < parts[i].len ? left : parts[i].len;
        if (n >= 0) say_bytes(parts[i].data, part);
        left -= part;
        free(parts[i].data);
    }
    return n;
}

static ptrdiff_t do_exact(int argc, char **argv)
{
    blob b = room(size(argv[2]));
    size_t done = 0;
    int err = netio_recv_exact(find(argv[1])->s, b.data, b.len, &done, integer(argv[3]));
    (void)argc;
    say_bytes(b.data, done);
    free(b.data);
    return err;
}

// recvall NAME MS: everything until the end of the stream, which is OK here.
static ptrdiff_t do_recvall(int argc, char **argv)
{
    static char buf[ECHO_BUF];
    netio_socket s = find(argv[1])->s;
    int64_t by = netio_deadline(integer(argv[2]));
    unsigned long total = 0;
    uint32_t crc = 0;
    ptrdiff_t n;
    (void)argc;
    while ((n = netio_recv(s, buf, sizeof buf, netio_deadline_left(by))) > 0) {
        crc = crc32_add(crc, buf, (size_t)n);
        total += (unsigned long)n;
    }
    say(" n=%lu crc=%08lx", total, (unsigned long)crc);
    return n == NETIO_EOF ? 0 : n;
}

// echo NAME MS: send back what comes, until the end of the stream.
static ptrdiff_t do_echo(int argc, char **argv)
{
    static char buf[ECHO_BUF];
    netio_socket s = find(argv[1])->s;
    int64_t by = netio_deadline(integer(argv[2]));
    unsigned long total = 0;
    ptrdiff_t n;
    (void)argc;
    while ((n = netio_recv(s, buf, sizeof buf, netio_deadline_left(by))) > 0) {
        int err = netio_send_all(s, buf, (size_t)n, NULL, netio_deadline_left(by));
        if (err < 0) return err;
        total += (unsigned long)n;
    }
    say(" n=%lu", total);
    return n == NETIO_EOF ? 0 : n;
}

// exchange NAME DATA MS: send all of it, half-close, and receive meanwhile until the peer's end.
static ptrdiff_t do_exchange(int argc, char **argv)
{
    static char buf[ECHO_BUF];
    netio_socket s = find(argv[1])->s;
    int64_t by = netio_deadline(integer(argv[3]));
    blob b = data(argv[2]);
    size_t sent = 0;
    unsigned long total = 0;
    uint32_t crc = 0;
    unsigned want = NETIO_EV_READ | NETIO_EV_WRITE;
    ptrdiff_t n = 0;
    (void)argc;
    while (n >= 0) {
        int got = netio_wait(s, want, netio_deadline_left(by));
        n = got;
        if (got > 0 && (got & NETIO_EV_READ)) {
            n = netio_recv(s, buf, sizeof buf, 0);
            if (n > 0) crc = crc32_add(crc, buf, (size_t)n), total += (unsigned long)n;
            if (n == NETIO_EAGAIN) n = 0;
        }
        if (got > 0 && n >= 0 && (got & NETIO_EV_WRITE) && sent <= b.len) {
            ptrdiff_t m = netio_send(s, b.data + sent, b.len - sent, 0);
            if (m >= 0) sent += (size_t)m;
            else if (m != NETIO_EAGAIN) n = m;
            if (sent == b.len) want = NETIO_EV_READ, netio_shutdown(s, NETIO_SHUT_WRITE), sent++;
        }
    }
    say(" n=%lu crc=%08lx sent=%lu sent_crc=%08lx", total, (unsigned long)crc,
        (unsigned long)(sent > b.len ? b.len : sent), (unsigned long)crc32_add(0, b.data, b.len));
    free(b.data);
    return n == NETIO_EOF ? 0 : n;
}

static ptrdiff_t do_recvfrom(int argc, char **argv)
{
    blob b = room(size(argv[2]));
    netio_addr from;
    ptrdiff_t n = netio_recvfrom(find(argv[1])->s, b.data, b.len, &from, integer(argv[3]));
    (void)argc;
    if (n >= 0) {
        say(" length=%ld", (long)n);
        say_bytes(b.data, (size_t)n < b.len ? (size_t)n : b.len);
        say_addr("sender", &from);
    }
    free(b.data);
    return n;
}

// packet NAME CAP MS: as recvfrom, with all that is told of a datagram.
static ptrdiff_t do_packet(int argc, char **argv)
{
    blob b = room(size(argv[2]));
    netio_datagram m;
    memset(&m, 0, sizeof m);
    m.data = b.data, m.cap = b.len;
    ptrdiff_t n = netio_recv_batch(find(argv[1])->s, &m, 1, integer(argv[3]));
    (void)argc;
    if (n == 1) {
        say(" length=%lu", (unsigned long)m.full);
        say_bytes(b.data, m.len);
        say_addr("sender", &m.peer);
        if (m.local.len) say_addr("local", &m.local);
        say(" if=%u ttl=%u tos=%u", (unsigned)m.ifindex, (unsigned)m.ttl, (unsigned)m.tos);
    }
    free(b.data);
    return n;
}

// join, leave NAME GROUP INTERFACE|- [SOURCE]: as addresses, whose ports do not matter.
static ptrdiff_t do_membership(int argc, char **argv)
{
    netio_socket s = find(argv[1])->s;
    netio_addr group = address(argv[2]), source;
    bool any = strcmp(argv[3], "-") == 0;
    // What is no name, number or address here is a number that nobody has.
    uint32_t by = any ? 0 : netio_interface_index(argv[3]);
    if (argc > 4) source = address(argv[4]);
    if (!any && by == 0) by = 99999;
    return strcmp(argv[0], "join") == 0
               ? netio_multicast_join(s, &group, by, argc > 4 ? &source : NULL)
               : netio_multicast_leave(s, &group, by, argc > 4 ? &source : NULL);
}

static ptrdiff_t do_sendto(int argc, char **argv)
{
    netio_addr to = address(argv[2]);
    blob b = data(argv[3]);
    ptrdiff_t n = netio_sendto(find(argv[1])->s, b.data, b.len, &to, integer(argv[4]));
    (void)argc;
    if (n >= 0) say(" n=%ld", (long)n);
    free(b.data);
    return n;
}

// echofrom NAME COUNT MS: send COUNT datagrams back to where each came from.
static ptrdiff_t do_echofrom(int argc, char **argv)
{
    static char buf[ECHO_BUF];
    netio_socket s = find(argv[1])->s;
    int64_t by = netio_deadline(integer(argv[3]));
    long i, count = integer(argv[2]);
    unsigned long total = 0;
    (void)argc;
    for (i = 0; i < count; i++) {
        netio_addr from;
        ptrdiff_t n = netio_recvfrom(s, buf, sizeof buf, &from, netio_deadline_left(by));
        if (n >= 0) total += (unsigned long)n;
        if (n >= 0) n = netio_sendto(s, buf, (size_t)n, &from, netio_deadline_left(by));
        if (n < 0) {
            say(" echoed=%ld", i);
            return n;
        }
    }
    say(" echoed=%ld n=%lu", i, total);
    return 0;
}

// sizes NAME ADDRESS FIRST LAST MS: a datagram of each size there, and the same one back.
static ptrdiff_t do_sizes(int argc, char **argv)
{
    static unsigned char out[ECHO_BUF], in[ECHO_BUF];
    netio_socket s = find(argv[1])->s;
    netio_addr to = address(argv[2]), from;
    int64_t by = netio_deadline(integer(argv[5]));
    size_t i, len, last = size(argv[4]);
    (void)argc;
    for (len = size(argv[3]); len <= last && len <= sizeof out; len++) {
        ptrdiff_t n;
        for (i = 0; i < len; i++) out[i] = (unsigned char)(i * 7 + len);
        n = netio_sendto(s, out, len, &to, netio_deadline_left(by));
        if (n == (ptrdiff_t)len)
            n = netio_recvfrom(s, in, sizeof in, &from, netio_deadline_left(by));
        if (n < 0) {
            say(" size=%lu", (unsigned long)len);
            return n;
        }
        if ((size_t)n != len || memcmp(in, out, len) != 0 || !netio_addr_equal(&to, &from)) {
            say(" size=%lu got=%ld", (unsigned long)len, (long)n);
            return NETIO_EBADMSG;
        }
    }
    return 0;
}

static ptrdiff_t do_query(int argc, char **argv)
{
    static char buf[ECHO_BUF];
    netio_addr to = address(argv[2]);
    blob b = data(argv[3]);
    netio_buf request;
    netio_room answer;
    ptrdiff_t n;
    (void)argc;
    request.data = b.data, request.len = b.len;
    answer.data = buf, answer.cap = sizeof buf;
    n = netio_query(find(argv[1])->s, &to, request, answer, NULL, NULL, integer(argv[4]),
                    integer(argv[5]));
    if (n >= 0) say_bytes(buf, (size_t)n);
    free(b.data);
    return n;
}

// sendfile NAME PATH OFFSET LENGTH MS
static ptrdiff_t do_sendfile(int argc, char **argv)
{
    FILE *f = fopen(argv[2], "rb");
    uint64_t done = 0;
    int err;
    (void)argc;
    if (f == NULL) die("cannot open", argv[2]);
#if defined(_WIN32)
    err = netio_sendfile(find(argv[1])->s, (netio_file)_get_osfhandle(_fileno(f)),
                         (uint64_t)number(argv[3]), (uint64_t)number(argv[4]), &done,
                         integer(argv[5]));
#else
    err = netio_sendfile(find(argv[1])->s, fileno(f), (uint64_t)number(argv[3]),
                         (uint64_t)number(argv[4]), &done, integer(argv[5]));
#endif
    say(" done=%lu", (unsigned long)done);
    fclose(f);
    return err;
}

static ptrdiff_t do_set(int argc, char **argv)
{
    netio_socket s = find(argv[1])->s;
    int o = option_number(argv[2]);
    (void)argc;
    return option_is_text(o) ? netio_set_option_text(s, o, argv[3])
                             : netio_set_option(s, o, integer(argv[3]));
}

static ptrdiff_t do_get(int argc, char **argv)
{
    netio_socket s = find(argv[1])->s;
    int o = option_number(argv[2]), value = 0, err;
    char text[64];
    (void)argc;
    if (option_is_text(o)) {
        err = netio_get_option_text(s, o, text, sizeof text);
        if (err >= 0) say(" value=%s", text);
    } else {
        err = netio_get_option(s, o, &value);
        if (err >= 0 && o == NETIO_OPT_ERROR) say(" value=%s", netio_errname(value));
        else if (err >= 0) say(" value=%d", value);
    }
    return err;
}

static ptrdiff_t do_supported(int argc, char **argv)
{
    (void)argc;
    say(" value=%d", (int)netio_option_supported(option_number(argv[1])));
    return 0;
}

static ptrdiff_t do_keepalive(int argc, char **argv)
{
    (void)argc;
    return netio_set_keepalive(find(argv[1])->s, integer(argv[2]), integer(argv[3]),
                               integer(argv[4]));
}

static ptrdiff_t do_resolve(int argc, char **argv)
{
    netio_addr out[NETIO_RESOLVE_MAX];
    netio_resolve_opts opts;
    ptrdiff_t i, n;
    memset(&opts, 0, sizeof opts);
    if (argc > 3) opts.family = integer(argv[3]);
    n = netio_resolve(argv[1], out, NETIO_RESOLVE_MAX, &opts, integer(argv[2]));
    if (n >= 0) say(" count=%ld", (long)n);
    for (i = 0; i < n; i++) say_addr("addr", &out[i]);
    return n;
}

static ptrdiff_t do_parse(int argc, char **argv)
{
    netio_addr a;
    int err = netio_addr_parse(&a, argv[1], strlen(argv[1]));
    (void)argc;
    if (err < 0) return err;
    say_addr("addr", &a);
    say(" scope=%lu", (unsigned long)netio_addr_scope(&a));
    return 0;
}

#ifndef NETIO_NO_UNIX
static ptrdiff_t do_unlink(int argc, char **argv)
{
    netio_addr a = address(argv[1]);
    (void)argc;
    return netio_unix_unlink(&a);
}
#endif

// --- the poller --------------------------------------------------------------------------------

static int backend(const char *name)
{
    int i;
    for (i = 0; i < 16; i++)
        if (strcmp(netio_backend_name(i), name) == 0) return i;
    if (strcmp(name, "auto") == 0) return NETIO_BACKEND_AUTO;
    die("no such backend", name);
    return 0;
}

static ptrdiff_t do_poller(int argc, char **argv)
{
    int err;
    (void)argc;
    netio_poller_close(poller);
    poller = NULL;
    if (strcmp(argv[1], "-") == 0) return 0;
    err = netio_poller_open(&poller, backend(argv[1]));
    if (err == 0) say(" backend=%s", netio_backend_name(netio_poller_backend(poller)));
    return err;
}

static ptrdiff_t do_add(int argc, char **argv)
{
    slot *at = find(argv[1]);
    (void)argc;
    return netio_poller_add(poller, at->s, events(argv[2]), at);
}

static ptrdiff_t do_modify(int argc, char **argv)
{
    slot *at = find(argv[1]);
    (void)argc;
    return netio_poller_modify(poller, at->s, events(argv[2]), at);
}

static ptrdiff_t do_remove(int argc, char **argv)
{
    (void)argc;
    return netio_poller_remove(poller, find(argv[1])->s);
}

static ptrdiff_t do_drop(int argc, char **argv)
{
    slot *at = find(argv[1]);
    int err = netio_poller_drop(poller, &at->s);
    (void)argc;
    if (at->s == NETIO_INVALID_SOCKET) at->name[0] = '\0';
    return err;
}

static ptrdiff_t do_wake(int argc, char **argv)
{
    (void)argc, (void)argv;
    return netio_poller_wake(poller);
}

static ptrdiff_t do_poll(int argc, char **argv)
{
    netio_event got[64];
    ptrdiff_t i, n = netio_poller_wait(poller, got, 64, integer(argv[1]));
    (void)argc;
    if (n >= 0) say(" count=%ld stale=%lu", (long)n, (unsigned long)netio_poller_stale(poller));
    for (i = 0; i < n; i++) say_events(((slot *)got[i].user)->name, got[i].events);
    return n;
}

typedef struct tally {
    long came, gone, waits;
    unsigned long bytes;
} tally;

static int serve_client(const netio_event *e, tally *t)
{
    static char buf[ECHO_BUF];
    netio_socket s = e->socket;
    ptrdiff_t n = netio_recv(s, buf, sizeof buf, 0);
    if (n == NETIO_EAGAIN) return 0;
    if (n > 0) {
        t->bytes += (unsigned long)n;
        if (netio_send_all(s, buf, (size_t)n, NULL, 5000) == 0) return 0;
    }
    t->gone++;
    return netio_poller_drop(poller, &s);
}

// serve BACKEND LISTENER CLIENTS MS: an echo server until so many clients have come and gone.
static ptrdiff_t do_serve(int argc, char **argv)
{
    netio_event got[64];
    slot *listener = find(argv[2]);
    long clients = integer(argv[3]);
    int64_t by = netio_deadline(integer(argv[4]));
    tally t = {0, 0, 0, 0};
    ptrdiff_t n = netio_poller_open(&poller, backend(argv[1]));
    (void)argc;
    if (n == 0) n = netio_poller_add(poller, listener->s, NETIO_EV_READ, listener);
    while (n >= 0 && t.gone < clients && netio_deadline_left(by) != 0) {
        ptrdiff_t i;
        n = netio_poller_wait(poller, got, 64, netio_deadline_left(by));
        t.waits++;
        for (i = 0; i < n; i++) {
            netio_socket s;
            int err;
            if (got[i].user == NULL) {
                serve_client(&got[i], &t);
                continue;
            }
            err = netio_accept(&s, listener->s, NULL, 0);
            if (err == 0) err = netio_poller_add(poller, s, NETIO_EV_READ, NULL);
            if (err == 0) t.came++;
            else if (err != NETIO_EAGAIN) n = err;
        }
    }
    say(" came=%ld gone=%ld total=%lu waits=%ld stale=%lu", t.came, t.gone, t.bytes, t.waits,
        poller == NULL ? 0 : (unsigned long)netio_poller_stale(poller));
    netio_poller_close(poller);
    poller = NULL;
    return n < 0 ? n : t.gone < clients ? NETIO_ETIMEDOUT : 0;
}

// --- the interpreter -----------------------------------------------------------------------------

typedef struct command {
    const char *name;
    int words; // at least, with the name itself
    ptrdiff_t (*run)(int argc, char **argv);
} command;

// clang-format off
static const command commands[] = {
    {"listen",    3, do_listen},    // NAME ADDRESS [OPTIONS]
    {"bind",      3, do_bind},      // NAME ADDRESS|- [OPTIONS]
    {"connect",   4, do_connect},   // NAME ADDRESS MS [OPTIONS]
    {"start",     3, do_start},     // NAME ADDRESS [OPTIONS]
    {"finish",    3, do_finish},    // NAME MS
    {"accept",    4, do_accept},    // NAME LISTENER MS
    {"pair",      3, do_pair},      // NAME NAME [TYPE]
    {"adopt",     3, do_adopt},     // NAME DESCRIPTOR
    {"release",   3, do_release},   // NAME FOUND
    {"fd",        2, do_fd},        // NAME
    {"close",     2, do_close},     // NAME
    {"graceful",  4, do_graceful},  // NAME MAX MS
    {"abort",     2, do_abort},     // NAME
    {"shutdown",  3, do_shutdown},  // NAME read|write|both
    {"local",     2, do_local},     // NAME
    {"peer",      2, do_peer},      // NAME
    {"wait",      4, do_wait},      // NAME EVENTS MS
    {"send",      4, do_send},      // NAME DATA MS
    {"sendall",   4, do_sendall},   // NAME DATA MS
    {"sendv",     4, do_sendv},     // NAME MS DATA...
    {"sendvall",  4, do_sendv},     // NAME MS DATA...
    {"recv",      4, do_recv},      // NAME CAP MS
    {"peek",      4, do_recv},      // NAME CAP MS
    {"recvv",     4, do_recvv},     // NAME MS CAP...
    {"exact",     4, do_exact},     // NAME LENGTH MS
    {"recvall",   3, do_recvall},   // NAME MS
    {"echo",      3, do_echo},      // NAME MS
    {"exchange",  4, do_exchange},  // NAME DATA MS
    {"recvfrom",  4, do_recvfrom},  // NAME CAP MS
    {"packet",    4, do_packet},    // NAME CAP MS
    {"sendto",    5, do_sendto},    // NAME ADDRESS DATA MS
    {"join",      4, do_membership}, // NAME GROUP INTERFACE|- [SOURCE]
    {"leave",     4, do_membership}, // NAME GROUP INTERFACE|- [SOURCE]
    {"echofrom",  4, do_echofrom},  // NAME COUNT MS
    {"sizes",     6, do_sizes},     // NAME ADDRESS FIRST LAST MS
    {"query",     6, do_query},     // NAME ADDRESS DATA TRIES FIRST_MS
    {"sendfile",  6, do_sendfile},  // NAME PATH OFFSET LENGTH MS
    {"set",       4, do_set},       // NAME OPTION VALUE
    {"get",       3, do_get},       // NAME OPTION
    {"supported", 2, do_supported}, // OPTION
    {"keepalive", 5, do_keepalive}, // NAME IDLE INTERVAL COUNT
    {"resolve",   3, do_resolve},   // HOST:PORT MS [FAMILY]
    {"parse",     2, do_parse},     // ADDRESS
#ifndef NETIO_NO_UNIX
    {"unlink",    2, do_unlink},    // ADDRESS
#endif
    {"poller",    2, do_poller},    // BACKEND|-
    {"add",       3, do_add},       // NAME EVENTS
    {"modify",    3, do_modify},    // NAME EVENTS
    {"remove",    2, do_remove},    // NAME
    {"drop",      2, do_drop},      // NAME
    {"wake",      1, do_wake},
    {"poll",      2, do_poll},      // MS
    {"serve",     5, do_serve},     // BACKEND LISTENER CLIENTS MS
};
// clang-format on

// Run one command line, which is cut into its words, and answer it. 0, or 1 if it failed.
static int execute(char *line)
{
    char *argv[MAX_ARGS];
    int argc = 0;
    size_t i;
    uint64_t began;
    ptrdiff_t result;
    char *word = strtok(line, " \t\r\n");
    for (; word != NULL && argc < MAX_ARGS; word = strtok(NULL, " \t\r\n")) argv[argc++] = word;
    if (argc == 0) return 0;

    for (i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, argv[0]) == 0) break;
    if (i == sizeof commands / sizeof commands[0]) die("no such command", argv[0]);
    if (argc < commands[i].words) die("too few words for", argv[0]);

    said_len = 0;
    said[0] = '\0';
    os_known = false;
    began = netio_now_ms();
    result = commands[i].run(argc, argv);
    note_os_error();
    printf("%s ms=%lu", result < 0 ? netio_errname(result) : "OK",
           (unsigned long)(netio_now_ms() - began));
    if (result < 0) printf(" os=%d", os_code);
    printf("%s\n", said);
    fflush(stdout);
    return result < 0;
}

int main(int argc, char **argv)
{
    static char line[65536];
    int i, failed = 0;
    if (argc < 2) die("usage", "driver COMMAND... | driver -");
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-") != 0) {
            if (strlen(argv[i]) >= sizeof line) die("line too long", argv[i]);
            strcpy(line, argv[i]);
            failed |= execute(line);
            continue;
        }
        while (fgets(line, sizeof line, stdin) != NULL) failed |= execute(line);
    }
    netio_poller_close(poller);
    return failed;
}
