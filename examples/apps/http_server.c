// A web server for the files of a folder, over HTTP or HTTPS, with its own state as a page.
//
//     GET, HEAD    files (ranges, conditions), index.html or a list of the folder's files
//     /health      "ok"
//     /status      counters for anybody, as text, or as JSON if the request accepts that
//
// Names that begin with a dot, and those that Windows takes for devices, drives or streams, are not
// there, on any system (see http_files_shown). A symbolic link in the folder is followed wherever
// it leads: who may write there decides what is served.
//
// What it does against bad clients and bad links:
//   - a head has a largest size and a longest time, also if its bytes trickle in; so has a body,
//     which is read and dropped, as nothing here takes one
//   - so many connections, so many of one host, so many new ones of a host a minute, so many
//     requests on one, and silence in between for so long
//   - requests sent ahead are answered in order; while answers wait to be sent, few are begun
//   - files and lists are sent as fast as the client takes them, from the file, not from memory
//   - what could be read in two ways (request smuggling) is refused, and the connection closed
// SIGTERM or SIGINT: no new clients, answers that are under way are finished within the grace time;
// a second signal ends it at once. SIGHUP reads the certificate again; those who are connected keep
// the old one, and if the new one is bad, so does everybody. Log lines go to stderr: time, level,
// connection; without --log only warnings. They are dropped, and counted, when nobody reads them.
//
// Build  cc http_server.c -o http_server                  (Windows: add -lws2_32)
//        cc -DNETIO_TLS_OPENSSL http_server.c -o http_server -lssl -lcrypto       for HTTPS
// Try    ./http_server --log . 127.0.0.1:8080        and: curl -i -r 0-99 127.0.0.1:8080/README.md
//        ./http_server --cert cert.pem --key key.pem . :8443
#if !defined(NETIO_TLS_OPENSSL) && !defined(NETIO_TLS_NONE)
#define NETIO_TLS_NONE
#endif
#define NETIO_IMPLEMENTATION
#include "../../netio_tls.h"
#include "../common/http_files.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PATH_MOST = 2 * HTTP_FILES_TARGET_MAX, // bytes of the folder's path and a name in it
    FILES_MOST = 4,                        // files of one connection that wait to be sent
    SMALL_MOST = 16 * 1024, // files up to this size go out in one piece with the head
    CHUNK_MOST = 64 * 1024, // largest chunk of a request's body
    BODY_RATE = 1024,       // bytes a second that a body must bring on average
    LINE_MOST = 512,        // of the log: what any pipe with room takes at once
    TICK_MS = 200
};

static double conn_max = 1000, host_max = 200, connects = 0, requests_max = 1000, head_max = 4096,
              head_time = 10, body_max = 1 << 20, idle = 30, grace = 10;

//------------------------------------------------------------------------------------------------
// Files and folders
//------------------------------------------------------------------------------------------------

typedef struct file_info {
    uint64_t id, size;
    int64_t changed; // seconds since 1970
    bool folder;
} file_info;

typedef struct folder folder;

#if defined(_WIN32)
#include <windows.h>

enum { RELOAD_SIGNAL = SIGBREAK }; // Ctrl-Break
static double watch = 1;

struct folder {
    HANDLE find;
    WIN32_FIND_DATAW entry;
    bool first;
    char name[3 * MAX_PATH];
};

// Paths are UTF-8. Whatever Windows has against the name is NETIO_ENOENT.
static bool wide_path(WCHAR out[PATH_MOST], const char *path)
{
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out, PATH_MOST) > 0;
}

static void file_close(netio_file file) { CloseHandle((HANDLE)file); }

// Opens a file or folder and nothing else.
static int file_open(netio_file *out, file_info *info, const char *path)
{
    BY_HANDLE_FILE_INFORMATION i;
    WCHAR wide[PATH_MOST];
    if (!wide_path(wide, path)) return NETIO_ENOENT;
    HANDLE h =
        CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                    NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (h == INVALID_HANDLE_VALUE) {
        DWORD code = GetLastError();
        return code == ERROR_ACCESS_DENIED || code == ERROR_SHARING_VIOLATION ? NETIO_EACCES
                                                                              : NETIO_ENOENT;
    }
    if (GetFileType(h) != FILE_TYPE_DISK || !GetFileInformationByHandle(h, &i)) {
        CloseHandle(h);
        return NETIO_ENOENT;
    }
    uint64_t ticks =
        (uint64_t)i.ftLastWriteTime.dwHighDateTime << 32 | i.ftLastWriteTime.dwLowDateTime;
    info->id = (uint64_t)i.nFileIndexHigh << 32 | i.nFileIndexLow;
    info->size = (uint64_t)i.nFileSizeHigh << 32 | i.nFileSizeLow;
    info->changed = (int64_t)(ticks / 10000000u) - 11644473600; // from 1601 to 1970
    info->folder = (i.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    *out = (netio_file)h;
    return 0;
}

static bool file_read(netio_file file, void *buf, size_t len, uint64_t off)
{
    OVERLAPPED at = {0};
    DWORD n = 0;
    at.Offset = (DWORD)off;
    at.OffsetHigh = (DWORD)(off >> 32);
    return ReadFile((HANDLE)file, buf, (DWORD)len, &n, &at) && n == len;
}

// The whole file as memory; NULL: not this time.
static void *file_map(netio_file file, uint64_t size)
{
    HANDLE map = CreateFileMappingW((HANDLE)file, NULL, PAGE_READONLY, 0, 0, NULL);
    void *data = map && size <= SIZE_MAX ? MapViewOfFile(map, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (map) CloseHandle(map);
    return data;
}

static void file_unmap(void *data, uint64_t size)
{
    (void)size;
    UnmapViewOfFile(data);
}

static void folder_close(folder *f)
{
    FindClose(f->find);
    free(f);
}

// Takes the handle.
static folder *folder_open(netio_file file, const char *path)
{
    char all[PATH_MOST + 2];
    WCHAR wide[PATH_MOST];
    folder *f = (folder *)calloc(1, sizeof *f);
    file_close(file);
    snprintf(all, sizeof all, "%s*", path);
    if (!f) return NULL;
    f->first = true;
    f->find = wide_path(wide, all) ? FindFirstFileW(wide, &f->entry) : INVALID_HANDLE_VALUE;
    if (f->find != INVALID_HANDLE_VALUE) return f;
    free(f);
    return NULL;
}

// The next file or folder in it, lent; NULL: that was all.
static const char *folder_next(folder *f, bool *is_folder)
{
    if (!f->first && !FindNextFileW(f->find, &f->entry)) return NULL;
    f->first = false;
    *is_folder = (f->entry.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    if (!WideCharToMultiByte(CP_UTF8, 0, f->entry.cFileName, -1, f->name, sizeof f->name, NULL,
                             NULL))
        f->name[0] = 0;
    return f->name;
}

static bool log_has_room(void) { return true; }

#else
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RELOAD_SIGNAL = SIGHUP };
static double watch = 0;

struct folder {
    DIR *dir;
};

static void file_close(netio_file file) { close(file); }

// Opens a file or folder and nothing else. (A FIFO would wait for a writer without O_NONBLOCK.)
static int file_open(netio_file *out, file_info *info, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return netio_error_from_os(errno);
    if (fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        close(fd);
        return NETIO_ENOENT;
    }
    info->id = (uint64_t)st.st_ino;
    info->size = (uint64_t)st.st_size;
    info->changed = (int64_t)st.st_mtime;
    info->folder = S_ISDIR(st.st_mode);
    *out = fd;
    return 0;
}

static bool file_read(netio_file file, void *buf, size_t len, uint64_t off)
{
    return pread(file, buf, len, (off_t)off) == (ssize_t)len;
}

// The whole file as memory; NULL: not this time.
static void *file_map(netio_file file, uint64_t size)
{
    void *data = size <= SIZE_MAX / 2 ? mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, file, 0)
                                      : MAP_FAILED;
    return data == MAP_FAILED ? NULL : data;
}

static void file_unmap(void *data, uint64_t size) { munmap(data, (size_t)size); }

static void folder_close(folder *f)
{
    closedir(f->dir);
    free(f);
}

// Takes the file.
static folder *folder_open(netio_file file, const char *path)
{
    folder *f = (folder *)malloc(sizeof *f);
    (void)path;
    if (f) f->dir = fdopendir(file);
    if (f && f->dir) return f;
    close(file);
    free(f);
    return NULL;
}

// The next file or folder in it, lent; NULL: that was all.
static const char *folder_next(folder *f, bool *is_folder)
{
    struct dirent *entry;
    struct stat st;
    while ((entry = readdir(f->dir)) != NULL) {
        if (fstatat(dirfd(f->dir), entry->d_name, &st, 0) < 0) continue; // gone, or a dead link
        *is_folder = S_ISDIR(st.st_mode);
        if (*is_folder || S_ISREG(st.st_mode)) return entry->d_name;
    }
    return NULL;
}

static bool log_has_room(void) { return netio_wait(STDERR_FILENO, NETIO_EV_WRITE, 0) >= 0; }
#endif

//------------------------------------------------------------------------------------------------
// What is known, and the log
//------------------------------------------------------------------------------------------------

// A connection reads a head, then perhaps a body, then answers; what comes behind is read when the
// answer was handed to netio, which for a list takes as long as the client does. From each state
// also to CLOSING.
//
//     HEAD --> BODY --> HEAD --> LISTING --> HEAD
//
typedef enum state { HEAD, BODY, LISTING, CLOSING } state;

typedef struct client {
    netio_conn conn;
    state state;
    bool keep;                // more requests may follow this one
    bool bare;                // HEAD: no body follows the head of the answer
    bool old;                 // HTTP/1.0: knows no chunks
    bool begun;               // the first bytes of a head are there
    bool paused;              // it is not read
    bool gone;                // on_close has run
    unsigned requests, files; // files: not sent yet
    uint64_t since_ms;        // when what it waits for began: silence, a head, a body
    uint64_t seen;            // bytes received by then
    uint64_t body, left;      // bytes of the body: received; to come, if it has a length
    void *later;              // a copy of the head while its body comes
    size_t later_len;
    folder *folder;               // whose list is being sent
    const netio_http_head *asked; // what is being answered, for the log; NULL: no request
} client;

typedef struct sending {
    client *to;
    netio_file file;
    void *map; // NULL: sent from the file
    uint64_t size;
} sending;

enum { REQUESTS, ANSWERS_2XX, ANSWERS_3XX, ANSWERS_4XX, ANSWERS_5XX, SLOW, LOG_DROPPED, COUNTS };

static const char *const count_names[COUNTS] = {"requests",    "answers_2xx", "answers_3xx",
                                                "answers_4xx", "answers_5xx", "too_slow",
                                                "log_dropped"};
static uint64_t counts[COUNTS];

static netio_loop *loop;
static netio_listener listener;
static netio_window *window;
static const char *root;
static bool stopping, log_all, use_maps;

// `text` may come from a client: nothing gets out that steers a terminal or begins another line.
static void write_log(int level, uint64_t id, const char *text)
{
    static const char *const names[] = {"", "ERROR", "WARN", "INFO", "DEBUG"};
    char line[LINE_MOST];
    time_t now = time(NULL);
    struct tm *utc = gmtime(&now);
    size_t n = utc ? strftime(line, 64, "%Y-%m-%dT%H:%M:%SZ", utc) : 0;
    if (level >= NETIO_LOG_INFO && !log_all) return;
    if (!log_has_room()) {
        counts[LOG_DROPPED]++;
        return;
    }
    n += (size_t)snprintf(line + n, sizeof line - n, " %s #%u ", names[level], (unsigned)id);
    for (; *text && n < sizeof line - 8; text++) {
        if (*text >= ' ' && *text <= '~') line[n++] = *text;
        else n += (size_t)snprintf(line + n, 5, "\\x%02x", (unsigned)(unsigned char)*text);
    }
    line[n++] = '\n';
    fwrite(line, 1, n, stderr);
    fflush(stderr); // which Windows buffers
}

static void note(int level, netio_conn c, const char *format, ...)
{
    char text[LINE_MOST];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    write_log(level, netio_conn_id(c), text);
}

static void note_answer(const client *me, int status, int64_t len)
{
    char from[NETIO_ADDR_TEXT] = "?";
    const netio_http_head *h = me->asked;
    netio_addr peer;
    if (!log_all) return;
    if (netio_conn_peer(me->conn, &peer) == 0) netio_addr_format(&peer, from, sizeof from);
    note(NETIO_LOG_INFO, me->conn, "%s \"%.*s %.*s\" %d %lld", from, h ? (int)h->method.len : 1,
         h ? (const char *)h->method.data : "-", h ? (int)h->target.len : 0,
         h ? (const char *)h->target.data : "", status, (long long)len);
}

//------------------------------------------------------------------------------------------------
// Answers
//------------------------------------------------------------------------------------------------

static void set_state(client *me, state to)
{
    bool legal = to == CLOSING || me->state == HEAD || to == HEAD;
    if (!legal || me->state == CLOSING || me->state == to) abort(); // a mistake in this program
    me->state = to;
}

// Reads on only while there is room for what would be answered.
static void pace(client *me)
{
    bool full = me->state == LISTING || me->files >= FILES_MOST;
    if (full == me->paused) return;
    me->paused = full;
    if (full) netio_conn_pause(me->conn);
    else netio_conn_resume(me->conn);
}

// What cannot be sent whole must not be sent in part. (A client that has left is no matter.)
static void put(client *me, const netio_buf *bufs, size_t count)
{
    if (netio_conn_writev(me->conn, bufs, count) == NETIO_ENOMEM) netio_conn_abort(me->conn);
}

static void put_bytes(client *me, const char *data, size_t len)
{
    netio_buf buf = {data, len};
    put(me, &buf, 1);
}

// The head of an answer. `more`: further fields, each with its line end; len -1: chunks follow.
static void begin(client *me, int status, const char *type, const char *more, int64_t len)
{
    static char date[HTTP_FILES_DATE];
    static time_t date_of;
    char head[1024 + HTTP_FILES_TARGET_MAX], length[48] = "";
    time_t now = time(NULL);
    if (now != date_of) http_files_date(date, now);
    date_of = now;
    if (stopping || (len < 0 && me->old) || (requests_max > 0 && me->requests >= requests_max))
        me->keep = false;
    if (len >= 0 && status != 304)
        snprintf(length, sizeof length, "Content-Length: %lld\r\n", (long long)len);
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nDate: %s\r\n%s%s%s%s%s%s\r\n", status,
                     http_files_reason(status), date,
                     type ? "X-Content-Type-Options: nosniff\r\nContent-Type: " : "",
                     type ? type : "", type ? "\r\n" : "",
                     len < 0 && !me->old ? "Transfer-Encoding: chunked\r\n" : length, more,
                     !me->keep ? "Connection: close\r\n"
                     : me->old ? "Connection: keep-alive\r\n"
                               : "");
    counts[ANSWERS_2XX + status / 100 - 2]++;
    note_answer(me, status, len);
    me->asked = NULL;
    put_bytes(me, head, (size_t)n);
}

// The answer is netio's now; what it could not send is told by on_close.
static void finish(client *me)
{
    netio_stats s;
    me->begun = false;
    me->since_ms = netio_loop_now_ms(loop);
    if (netio_conn_stats(me->conn, &s) == 0) me->seen = s.bytes_in;
    if (me->keep) return;
    set_state(me, CLOSING);
    netio_conn_close(me->conn);
}

static void reply(client *me, int status, const char *type, const char *more, const char *text)
{
    begin(me, status, type, more, (int64_t)strlen(text));
    if (!me->bare) put_bytes(me, text, strlen(text));
    finish(me);
}

static void refuse(client *me, int status)
{
    char text[64];
    snprintf(text, sizeof text, "%d %s\n", status, http_files_reason(status));
    reply(me, status, "text/plain", status == 405 ? "Allow: GET, HEAD\r\n" : "", text);
}

static void refuse_and_close(client *me, int status)
{
    me->keep = false;
    refuse(me, status);
}

// A body whose length is not known when it begins, gathered into chunks.
typedef struct page {
    client *to;
    size_t len;
    char text[8192]; // the longest piece is less than half of it
} page;

static void page_flush(page *p)
{
    netio_framing chunked = netio_framing_chunked(sizeof p->text);
    netio_frame chunk = {.data = (const uint8_t *)p->text, .len = p->len};
    netio_envelope around = {0};
    netio_buf bufs[3] = {{around.head, 0}, {p->text, p->len}, {around.tail, 0}};
    if (!p->to->old) netio_encode(&around, &chunked, &chunk); // an empty one is nothing
    bufs[0].len = around.head_len;
    bufs[2].len = around.tail_len;
    put(p->to, bufs, 3);
    p->len = 0;
}

static void page_put(page *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    p->len += (size_t)vsnprintf(p->text + p->len, sizeof p->text - p->len, format, args);
    va_end(args);
    if (p->len > sizeof p->text / 2) page_flush(p);
}

static void page_end(page *p)
{
    page_flush(p);
    if (!p->to->old) put_bytes(p->to, "0\r\n\r\n", 5);
}

//------------------------------------------------------------------------------------------------
// What there is to get
//------------------------------------------------------------------------------------------------

static void answer_status(client *me, const netio_http_head *head)
{
    bool json = netio_http_field_has(head, "accept", "application/json");
    page p = {.to = me};
    netio_stats s;
    netio_loop_stats(loop, &s);
    const struct {
        const char *name;
        uint64_t value;
    } more[] = {
        {"connections", s.active},  {"accepted", s.accepted},
        {"refused", s.refused},     {"timeouts", s.timeouts},
        {"resets", s.resets},       {"bytes_in", s.bytes_in},
        {"bytes_out", s.bytes_out}, {"up_s", (netio_loop_now_ms(loop) - s.opened_ms) / 1000}};
    begin(me, 200, json ? "application/json" : "text/plain", "Cache-Control: no-store\r\n", -1);
    for (size_t i = 0; i < COUNTS + sizeof more / sizeof *more; i++) {
        const char *name = i < COUNTS ? count_names[i] : more[i - COUNTS].name;
        unsigned long long value = i < COUNTS ? counts[i] : more[i - COUNTS].value;
        if (json) page_put(&p, "%s\"%s\": %llu", i ? ",\n" : "{", name, value);
        else page_put(&p, "%s %llu\n", name, value);
    }
    if (json) page_put(&p, "}\n");
    if (!me->bare) page_end(&p);
    finish(me);
}

// As much of the list as the client takes now.
static void list_more(client *me)
{
    char link[3 * 256 + 4], text[6 * 256 + 4];
    page p = {.to = me};
    const char *name = "";
    bool is_folder;
    while (netio_conn_alive(me->conn) && !netio_conn_congested(me->conn) &&
           (name = folder_next(me->folder, &is_folder)) != NULL) {
        if (!http_files_shown(name, strlen(name))) continue;
        http_files_link(link, sizeof link, name);
        http_files_html(text, sizeof text, name);
        page_put(&p, "<li><a href=\"%s%s\">%s%s</a>\n", link, is_folder ? "/" : "", text,
                 is_folder ? "/" : "");
    }
    page_flush(&p);
    if (name) return; // on_drain goes on
    page_put(&p, "</ul>\n");
    page_end(&p);
    folder_close(me->folder);
    me->folder = NULL;
    set_state(me, HEAD);
    pace(me);
    finish(me);
}

static void answer_list(client *me, folder *f, const char *name)
{
    char title[6 * 256 + 4];
    page p = {.to = me};
    if (!f) {
        refuse(me, 503);
        return;
    }
    begin(me, 200, "text/html; charset=utf-8", "", -1);
    if (me->bare) {
        folder_close(f);
        finish(me);
        return;
    }
    http_files_html(title, sizeof title, name);
    page_put(&p, "<!DOCTYPE html>\n<title>/%s</title>\n<h1>/%s</h1>\n<ul>\n", title, title);
    if (*name) page_put(&p, "<li><a href=\"../\">../</a>\n");
    page_flush(&p);
    me->folder = f;
    set_state(me, LISTING);
    pace(me);
    list_more(me);
}

static void client_free(client *me)
{
    if (!me->gone || me->files > 0) return;
    free(me->later);
    free(me);
}

// Netio has no more use for the file.
static void on_sent(void *user)
{
    sending *s = user;
    client *me = s->to;
    if (s->map) file_unmap(s->map, s->size);
    file_close(s->file);
    free(s);
    me->files--;
    if (!me->gone && me->state != CLOSING) pace(me);
    client_free(me);
}

// Takes the file. Its bytes go out in one send with the head.
static void send_small(client *me, netio_file file, uint64_t off, size_t len)
{
    static char bytes[SMALL_MOST];
    bool whole = file_read(file, bytes, len, off);
    file_close(file);
    if (whole) put_bytes(me, bytes, len);
    else netio_conn_abort(me->conn); // it has become shorter, and the head said how long it is
}

// Takes the file, which netio sends piece by piece: see netio_conn_write_file.
static void send_large(client *me, netio_file file, uint64_t size, uint64_t off, uint64_t len)
{
    sending *s = calloc(1, sizeof *s);
    int err = NETIO_ENOBUFS;
    if (!s) {
        file_close(file);
        netio_conn_abort(me->conn);
        return;
    }
    s->to = me;
    s->file = file;
    s->size = size;
    me->files++;
    if (use_maps) s->map = file_map(file, size);
    if (s->map)
        err = netio_conn_write_owned(me->conn, (char *)s->map + off, (size_t)len, on_sent, s);
    if (err == NETIO_ENOBUFS) // no map, or the queue has no room for all of it
        err = netio_conn_write_file(me->conn, file, off, len, on_sent, s);
    if (err == 0) {
        pace(me);
    } else {
        netio_conn_abort(me->conn);
        on_sent(s);
    }
}

// Takes the file.
static void answer_file(client *me, const netio_http_head *head, const char *path, netio_file file,
                        const file_info *info)
{
    char etag[HTTP_FILES_ETAG], date[HTTP_FILES_DATE], more[384];
    uint64_t off = 0, len = info->size;
    http_files_etag(etag, info->id, info->size, info->changed, (int64_t)time(NULL));
    http_files_date(date, info->changed);
    int n = snprintf(more, sizeof more, "ETag: %s\r\nLast-Modified: %s\r\nAccept-Ranges: bytes\r\n",
                     etag, date);
    int status = http_files_conditions(head, etag, date), ranged = 0;
    if (status == 0 && !me->bare)
        ranged = http_files_range(head, info->size, etag, date, &off, &len);
    if (ranged > 0)
        snprintf(more + n, sizeof more - (size_t)n, "Content-Range: bytes %llu-%llu/%llu\r\n",
                 (unsigned long long)off, (unsigned long long)(off + len - 1),
                 (unsigned long long)info->size);
    if (ranged < 0)
        snprintf(more + n, sizeof more - (size_t)n, "Content-Range: bytes */%llu\r\n",
                 (unsigned long long)info->size);
    if (status == 0) status = ranged > 0 ? 206 : ranged < 0 ? 416 : 200;
    if (status < 300) {
        begin(me, status, http_files_type(path), more, (int64_t)len);
        if (me->bare || len == 0) file_close(file);
        else if (len <= SMALL_MOST) send_small(me, file, off, (size_t)len);
        else send_large(me, file, info->size, off, len);
        finish(me);
        return;
    }
    file_close(file);
    reply(me, status, status == 304 ? NULL : "text/plain", more, "");
}

// Takes the folder; `path` ends with a slash and has room for more.
static void answer_folder(client *me, const netio_http_head *head, char *path, netio_file file,
                          const char *name)
{
    size_t n = strlen(path);
    netio_file index;
    file_info info;
    memcpy(path + n, "index.html", sizeof "index.html");
    int err = file_open(&index, &info, path);
    if (err == 0 && !info.folder) {
        file_close(file);
        answer_file(me, head, path, index, &info);
        return;
    }
    if (err == 0) file_close(index);
    if (err == NETIO_EACCES) { // it is there, so the list shall not be seen
        file_close(file);
        refuse(me, 403);
        return;
    }
    path[n] = 0;
    answer_list(me, folder_open(file, path), name);
}

static void answer_path(client *me, const netio_http_head *head, const char *name)
{
    char path[PATH_MOST + sizeof "/index.html"], more[HTTP_FILES_TARGET_MAX + 32];
    netio_buf target = http_files_path(head->target);
    netio_file file;
    file_info info;
    int n = snprintf(path, sizeof path, "%s/%s", root, name);
    int err = file_open(&file, &info, path);
    if (err == NETIO_EACCES) {
        refuse(me, 403);
    } else if (err == NETIO_EMFILE || err == NETIO_ENOMEM) {
        refuse(me, 503);
    } else if (err < 0) {
        refuse(me, 404);
    } else if (!info.folder) {
        answer_file(me, head, path, file, &info);
    } else if (path[n - 1] == '/') {
        answer_folder(me, head, path, file, name);
    } else { // so that links in its page are below it
        file_close(file);
        snprintf(more, sizeof more, "Location: %.*s/\r\n", (int)target.len,
                 (const char *)target.data);
        reply(me, 301, "text/plain", more, "");
    }
}

static void answer(client *me, const netio_http_head *head)
{
    char name[HTTP_FILES_TARGET_MAX + 1];
    int n = http_files_name(name, head->target);
    if (!netio_buf_equal(head->method, "GET") && !me->bare) refuse(me, 405);
    else if (n < 0) refuse(me, n == NETIO_ENOENT ? 404 : 400);
    else if (strcmp(name, "health") == 0) reply(me, 200, "text/plain", "", "ok\n");
    else if (strcmp(name, "status") == 0) answer_status(me, head);
    else answer_path(me, head, name);
}

//------------------------------------------------------------------------------------------------
// Requests
//------------------------------------------------------------------------------------------------

// Why it is refused whatever it is about: the status, after which the connection closes; else 0.
static int check_head(const netio_http_head *head)
{
    static const char *const methods[] = {"GET",    "HEAD",  "POST",    "PUT",    "PATCH",
                                          "DELETE", "TRACE", "OPTIONS", "CONNECT"};
    netio_buf expect = netio_http_field(head, "expect");
    bool sized = head->content_length >= 0 || head->chunked;
    size_t i = 0;
    while (i < 9 && !netio_buf_equal(head->method, methods[i])) i++;
    if (i == 9) return 501;
    if (head->target.len > HTTP_FILES_TARGET_MAX) return 414;
    if (i >= 2 && i <= 4 && !sized) return 411;
    if ((double)head->content_length > body_max) return 413;
    if (!expect.data || head->minor == 0) return 0;
    if (!netio_http_field_has(head, "expect", "100-continue")) return 417;
    return i < 2 ? 0 : 405; // the client waits to hear that before it sends a body
}

static void read_as(client *me, netio_framing framing)
{
    if (netio_conn_set_framing(me->conn, framing) == NETIO_ENOMEM) netio_conn_abort(me->conn);
}

// Its body is read and dropped before it is answered, so the head has to wait.
static void begin_body(client *me, const netio_http_head *head, const netio_frame *frame)
{
    static const netio_framing none;
    me->later = malloc(frame->len);
    if (!me->later) {
        refuse_and_close(me, 503);
        return;
    }
    memcpy(me->later, frame->data, frame->len);
    me->later_len = frame->len;
    me->body = 0;
    me->left = head->chunked ? 0 : (uint64_t)head->content_length;
    me->since_ms = netio_loop_now_ms(loop);
    me->asked = NULL;
    set_state(me, BODY);
    if (netio_http_field(head, "expect").data && !me->old)
        put_bytes(me, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    read_as(me, head->chunked ? netio_framing_chunked(CHUNK_MOST) : none);
}

static void end_body(client *me)
{
    netio_http_head head;
    void *text = me->later;
    me->later = NULL;
    set_state(me, HEAD);
    read_as(me, netio_framing_http_head((size_t)head_max));
    if (netio_http_parse(&head, text, me->later_len) == 0) { // as it was before
        me->asked = &head;
        answer(me, &head);
    }
    free(text);
}

static void take_chunk(client *me, const netio_frame *frame)
{
    me->body += frame->len;
    if ((double)me->body > body_max) refuse_and_close(me, 413);
    else if (frame->len == 0) end_body(me);
}

// A body with a length; there is no framing then.
static void on_data(netio_conn c, const void *data, size_t len)
{
    client *me = netio_conn_user(c);
    size_t n = len < me->left ? len : (size_t)me->left;
    (void)data;
    me->body += n;
    me->left -= n;
    if (me->left > 0) return;
    netio_conn_unread(c, len - n); // the next head
    end_body(me);
}

// "GET / HTTP/2.0": the grammar is right, and the version is not 1.
static bool is_other_version(const netio_frame *frame)
{
    const char *p = (const char *)frame->data, *end = memchr(p, '\r', frame->len);
    return end && end - p > 9 && memcmp(end - 9, " HTTP/", 6) == 0 && end[-2] == '.' &&
           end[-3] >= '0' && end[-3] <= '9' && end[-3] != '1' && end[-1] >= '0' && end[-1] <= '9';
}

static void take_head(client *me, const netio_frame *frame)
{
    netio_http_head head;
    int err = netio_http_parse(&head, frame->data, frame->len);
    int status = err == NETIO_EMSGSIZE ? 431 : is_other_version(frame) ? 505 : 400;
    counts[REQUESTS]++;
    me->requests++;
    me->bare = me->old = false;
    if (err == 0 && head.status == 0) {
        me->asked = &head;
        me->keep = head.keep_alive;
        me->bare = netio_buf_equal(head.method, "HEAD");
        me->old = head.minor == 0;
        status = check_head(&head);
    }
    if (status) refuse_and_close(me, status);
    else if (head.chunked || head.content_length > 0) begin_body(me, &head, frame);
    else answer(me, &head);
}

static void on_frame(netio_conn c, const netio_frame *frame)
{
    client *me = netio_conn_user(c);
    if (me->state == BODY) take_chunk(me, frame);
    else take_head(me, frame);
}

// What can be said about it goes out before the connection closes.
static void on_bad_frame(netio_conn c, const netio_frame *frame, int err)
{
    client *me = netio_conn_user(c);
    size_t len = (double)frame->len < head_max ? frame->len : (size_t)head_max;
    bool line_over = len > 0 && memchr(frame->data, '\n', len) != NULL;
    if (me->state == BODY) refuse_and_close(me, err == NETIO_EMSGSIZE ? 413 : 400);
    else if (err == NETIO_EMSGSIZE) refuse_and_close(me, line_over ? 431 : 414);
    else refuse_and_close(me, 400);
}

//------------------------------------------------------------------------------------------------
// Connections
//------------------------------------------------------------------------------------------------

static void on_open(netio_conn c)
{
    netio_stats s = {0};
    client *me = calloc(1, sizeof *me);
    if (!me) {
        netio_conn_abort(c);
        return;
    }
    me->conn = c;
    me->since_ms = netio_loop_now_ms(loop);
    netio_conn_stats(c, &s);
    me->seen = s.bytes_in; // those of a TLS handshake
    netio_conn_set_user(c, me);
}

static void on_drain(netio_conn c)
{
    client *me = netio_conn_user(c);
    if (me->state == LISTING) list_more(me);
}

// Who has a request under way gets its answer, the last one.
static void on_stop(netio_conn c)
{
    client *me = netio_conn_user(c);
    netio_stats s = {0};
    netio_conn_stats(c, &s);
    if (!me) return;
    me->keep = false;
    if (me->state != HEAD || (s.bytes_in != me->seen && netio_conn_pending(c) == 0)) return;
    set_state(me, CLOSING);
    netio_conn_close(c);
}

static void on_close(netio_conn c, int err)
{
    client *me = netio_conn_user(c);
    netio_error why;
    if (err < 0 && netio_conn_error(c, &why) == 0) note(NETIO_LOG_INFO, c, "ended: %s", why.text);
    if (!me) return;
    if (me->folder) folder_close(me->folder);
    me->folder = NULL;
    me->gone = true;
    client_free(me);
}

static bool on_accept(void *user, const netio_addr *peer)
{
    (void)user;
    return !window || netio_window_take(window, peer, netio_loop_now_ms(loop)) != NETIO_EBUSY;
}

static void on_refused(void *user, const netio_addr *peer, const netio_error *why)
{
    char address[NETIO_ADDR_TEXT] = "?", text[NETIO_ADDR_TEXT + 200];
    (void)user;
    netio_addr_format(peer, address, sizeof address);
    snprintf(text, sizeof text, "refused %s: %s", address, why->text);
    write_log(NETIO_LOG_WARN, 0, text);
}

static void too_slow(client *me)
{
    counts[SLOW]++;
    me->bare = me->old = false;
    refuse_and_close(me, 408);
}

static void look_after(void *user, netio_conn c)
{
    uint64_t now_ms = *(uint64_t *)user;
    client *me = netio_conn_user(c);
    netio_stats s;
    if (!me || netio_conn_stats(c, &s) < 0) return;
    if (me->state == BODY) { // the slowest that is let through needs so long
        double most_s = head_time + (double)me->body / BODY_RATE;
        if ((double)(now_ms - me->since_ms) > 1000 * most_s) too_slow(me);
    } else if (me->state == HEAD && (me->paused || netio_conn_pending(c) > 0)) {
        me->since_ms = now_ms; // an answer is under way; netio watches that it is taken
        me->seen = s.bytes_in;
    } else if (me->state == HEAD && s.bytes_in == me->seen) {
        if (idle <= 0 || (double)(now_ms - me->since_ms) <= 1000 * idle) return;
        set_state(me, CLOSING);
        netio_conn_close(c);
    } else if (me->state == HEAD) {
        if (!me->begun) me->since_ms = now_ms; // its first bytes are there
        me->begun = true;
        if ((double)(now_ms - me->since_ms) > 1000 * head_time) too_slow(me);
    }
}

//------------------------------------------------------------------------------------------------
// The certificate
//------------------------------------------------------------------------------------------------

static const char *const protocols[] = {"http/1.1"};
static netio_tls_ctx *current;
static netio_tls_config tls = {.alpn = protocols, .alpn_count = 1};

// Returns whether `current` is what the files say now.
static bool load(void)
{
    netio_tls_ctx *fresh;
    netio_tls_error why = {0};
    int err = netio_tls_ctx_create(&fresh, &tls, &why);
    if (err == NETIO_ENOTSUP) write_log(NETIO_LOG_ERROR, 0, "HTTPS needs NETIO_TLS_OPENSSL");
    if (err < 0) {
        write_log(NETIO_LOG_ERROR, 0, why.text[0] ? why.text : netio_strerror(err));
        return false;
    }
    netio_tls_ctx_unref(current); // connections hold references of their own
    current = fresh;
    return true;
}

static void on_reload(void *user)
{
    (void)user;
    bool fresh = load();
    if (fresh) netio_listener_set_filter(listener, netio_tls_filter(current));
    write_log(NETIO_LOG_WARN, 0, fresh ? "new certificate" : "kept the old certificate");
}

static bool files_changed(void)
{
    static file_info last[2];
    const char *const paths[2] = {tls.cert_file, tls.key_file};
    bool changed = false;
    for (int i = 0; i < 2; i++) {
        file_info now = {0};
        netio_file file;
        if (!paths[i] || file_open(&file, &now, paths[i]) < 0) continue; // being replaced, perhaps
        file_close(file);
        if (now.id != last[i].id || now.size != last[i].size || now.changed != last[i].changed)
            changed = true;
        last[i] = now;
    }
    return changed;
}

//------------------------------------------------------------------------------------------------
// The program
//------------------------------------------------------------------------------------------------

static void on_tick(void *user)
{
    static uint64_t looked_ms;
    uint64_t now_ms = netio_loop_now_ms(loop);
    (void)user;
    netio_conn_each(loop, look_after, &now_ms);
    if (!current || watch <= 0 || (double)(now_ms - looked_ms) < 1000 * watch) return;
    looked_ms = now_ms;
    if (files_changed()) on_reload(NULL);
}

static void on_signal(void *user)
{
    (void)user;
    stopping = true;
    write_log(NETIO_LOG_WARN, 0, "stopping");
    netio_loop_finish(loop, (int)(grace * 1000));
}

static void on_log(void *user, int level, const char *line)
{
    (void)user;
    write_log(level, 0, line);
}

// clang-format off
static const struct {
    const char *name, *what;
    double *number, least, most; // NULL: no number, but
    const char **text;           // NULL: no text either, but
    bool *on;                    // a switch
} options[] = {
    {"--max", "connections", &conn_max, 1, 1e6, NULL, NULL},
    {"--host-max", "connections from one host; 0: no limit", &host_max, 0, 1e6, NULL, NULL},
    {"--connects", "new ones from a host a minute; 0: no limit", &connects, 0, 1e4, NULL, NULL},
    {"--requests", "requests on a connection; 0: no limit", &requests_max, 0, 1e9, NULL, NULL},
    {"--head", "bytes of a request's head", &head_max, 256, 1e6, NULL, NULL},
    {"--head-time", "seconds from its first to its last", &head_time, 0.1, 1e5, NULL, NULL},
    {"--body", "bytes of a request's body", &body_max, 0, 1e12, NULL, NULL},
    {"--idle", "seconds without a request; 0: no limit", &idle, 0, 1e6, NULL, NULL},
    {"--grace", "seconds to finish when it stops", &grace, 0, 1e6, NULL, NULL},
    {"--cert", "FILE: certificate chain, for HTTPS", NULL, 0, 0, &tls.cert_file, NULL},
    {"--key", "FILE: its key, if that is another", NULL, 0, 0, &tls.key_file, NULL},
    {"--watch", "seconds between looks if they changed; 0: none", &watch, 0, 1e6, NULL, NULL},
    {"--log", "a line on stderr for each answer", NULL, 0, 0, NULL, &log_all},
    {"--mmap", "map files; who shortens one ends the server", NULL, 0, 0, NULL, &use_maps},
};
// clang-format on
enum { OPTIONS = sizeof options / sizeof *options };

static int usage(void)
{
    fprintf(stderr, "usage: http_server [OPTION]... FOLDER [ADDRESS]\n");
    for (int i = 0; i < OPTIONS; i++) {
        fprintf(stderr, "  %-11s %s", options[i].name, options[i].what);
        if (options[i].number) fprintf(stderr, " (%g)", *options[i].number);
        fprintf(stderr, "\n");
    }
    return 2;
}

// Takes the option at argv[*at], and its value. False: not understood.
static bool parse_option(int argc, char **argv, int *at)
{
    int i = 0;
    char *end;
    while (i < OPTIONS && strcmp(argv[*at], options[i].name) != 0) i++;
    if (i < OPTIONS && options[i].on) return *options[i].on = true;
    if (i == OPTIONS || ++*at == argc) return false;
    if (options[i].text) return (*options[i].text = argv[*at]) != NULL;
    double number = strtod(argv[*at], &end);
    *options[i].number = number;
    return end != argv[*at] && !*end && number >= options[i].least && number <= options[i].most;
}

// Sets `root` and the options. Returns the address; NULL: not understood.
static const char *parse(int argc, char **argv)
{
    const char *address = NULL;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') {
            if (!parse_option(argc, argv, &i)) return NULL;
        } else if (address) {
            return NULL;
        } else if (root) {
            address = argv[i];
        } else {
            root = argv[i];
        }
    }
    if (!root || strlen(root) >= PATH_MOST - HTTP_FILES_TARGET_MAX) return NULL;
    return address ? address : "127.0.0.1:8080";
}

static int serve(const char *address)
{
    static const netio_handler web = {.on_open = on_open,
                                      .on_data = on_data,
                                      .on_frame = on_frame,
                                      .on_bad_frame = on_bad_frame,
                                      .on_drain = on_drain,
                                      .on_stop = on_stop,
                                      .on_close = on_close};
    netio_listener_opts opts = {0};
    netio_loop_opts loop_opts = {.log = on_log};
    netio_addr local;
    char text[NETIO_ADDR_TEXT];
    opts.conn_max = (size_t)conn_max;
    opts.conn_max_per_host = (size_t)host_max;
    if (!current) opts.refusal = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n";
    opts.on_accept = on_accept;
    opts.on_refused = on_refused;
    opts.conn.framing = netio_framing_http_head((size_t)head_max);
    opts.conn.handshake_timeout_ms = (int)(head_time * 1000);
    if (current) opts.conn.filter = netio_tls_filter(current);

    int err = connects >= 1 ? netio_window_create(&window, (size_t)connects, 60000, 1024) : 0;
    if (err == 0) err = netio_loop_create(&loop, &loop_opts);
    if (err == 0) err = netio_listener_open(&listener, loop, address, &web, &opts);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGINT, on_signal, NULL);
    if (err == 0) err = netio_signal_start(NULL, loop, SIGTERM, on_signal, NULL);
    if (err == 0 && current) err = netio_signal_start(NULL, loop, RELOAD_SIGNAL, on_reload, NULL);
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
    netio_file file;
    file_info info = {0};
    if (!address) return usage();
    int err = file_open(&file, &info, root);
    if (err == 0) file_close(file);
    if (err < 0 || !info.folder) {
        fprintf(stderr, "http_server: %s: no folder\n", root);
        return 1;
    }
    files_changed();
    if (tls.cert_file && !load()) return 1;
    if (current) use_maps = false; // what is encrypted is copied anyway, and not all of it at once
    err = serve(address);
    if (err < 0) fprintf(stderr, "http_server: %s: %s\n", address, netio_strerror(err));
    netio_loop_destroy(loop);
    netio_tls_ctx_unref(current);
    netio_window_destroy(window);
    return err < 0;
}
