// What HTTP says about serving files: which name a target means, of what type it is, which bytes of
// it are asked for, whether the client has it already. No file is opened here and nothing is sent.
// See RFC 9110 sections 8.8 (ETag), 13 (conditions), 14 (ranges).
#ifndef HTTP_FILES_H
#define HTTP_FILES_H

#include "../../netio.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    HTTP_FILES_TARGET_MAX = 1024, // longest target, in bytes
    HTTP_FILES_DATE = 32,         // room for a date
    HTTP_FILES_ETAG = 64          // room for an entity tag
};

//------------------------------------------------------------------------------------------------
// Names
//------------------------------------------------------------------------------------------------

static inline char http_files_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

static inline bool http_files_begins(const char *p, size_t len, const char *word)
{
    size_t i = 0;
    while (i < len && word[i] && http_files_lower(p[i]) == word[i]) i++;
    return word[i] == 0;
}

static inline bool http_files_is_device(const char *p, size_t len)
{
    static const char *const names[] = {"con", "prn", "aux", "nul", "com", "lpt"};
    const char *dot = (const char *)memchr(p, '.', len);
    size_t n = dot ? (size_t)(dot - p) : len;
    while (n && p[n - 1] == ' ') n--;
    for (size_t i = 0; i < 6; i++) {
        if (n < 3 || !http_files_begins(p, n, names[i])) continue;
        if (i < 4 ? n == 3 : n == 4 && p[3] >= '0' && p[3] <= '9') return true;
        if (i >= 4 && n == 5 && p[3] == '\xC2') return true; // a small raised digit
    }
    return (n == 6 && http_files_begins(p, n, "conin$")) ||
           (n == 7 && http_files_begins(p, n, "conout$"));
}

// Whether a file or folder of this name, one piece of a path, is shown to anybody: the same on
// every system, so that a folder means the same wherever it is copied to. Not shown are what begins
// with a dot (hidden files, "." and ".."), and names that Windows takes for something else: drives,
// streams, devices, short names ("PROGRA~1"), other separators, patterns, a dot or blank at the
// end.
static inline bool http_files_shown(const char *name, size_t len)
{
    if (len == 0 || name[0] == '.' || name[len - 1] == '.' || name[len - 1] == ' ') return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < 0x20 || c == 0x7F || strchr("/\\:*?\"<>|", c)) return false;
        if (c == '~' && i + 1 < len && name[i + 1] >= '0' && name[i + 1] <= '9') return false;
    }
    return !http_files_is_device(name, len);
}

static inline int http_files_hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = http_files_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The target without scheme, host and query; len 0: it is no path.
static inline netio_buf http_files_path(netio_buf target)
{
    const char *p = (const char *)target.data, *end = p + target.len, *at;
    netio_buf out = {NULL, 0};
    if (target.len && *p != '/') { // "http://host/path", as sent to proxies
        for (at = p; at < end && *at != '/'; at++) continue;
        if (end - at < 2 || at[1] != '/') return out; // "*" or "host:port"
        for (p = at + 2; p < end && *p != '/' && *p != '?'; p++) continue;
    }
    for (at = p; at < end && *at != '?'; at++) continue;
    out.data = at == p ? "/" : p;
    out.len = at == p ? 1 : (size_t)(at - p);
    return out;
}

// The path below a folder that a request's target means: "/a%20b/c?x=1" is "a b/c", "/" is "". A
// slash at the end stays. What comes out has no piece that http_files_shown does not show, so it
// cannot leave the folder; only symbolic links that stand in it can. `out` is terminated.
//
// Returns  its length; NETIO_EINVAL (no path, bad or cut %XX, a NUL or other control character, not
//          UTF-8), NETIO_ENOENT (nothing is ever there), NETIO_ENAMETOOLONG (the target is longer
//          than HTTP_FILES_TARGET_MAX).
static inline int http_files_name(char out[HTTP_FILES_TARGET_MAX + 1], netio_buf target)
{
    netio_buf path = http_files_path(target);
    const char *p = (const char *)path.data, *end = p + path.len;
    size_t n = 0, begin = 0;
    uint32_t utf8 = 0;
    if (target.len > HTTP_FILES_TARGET_MAX) return NETIO_ENAMETOOLONG;
    if (path.len == 0) return NETIO_EINVAL;
    while (++p < end) { // the first byte is the slash
        int high = *p == '%' && end - p > 2 ? http_files_hex(p[1]) : -1;
        int low = high >= 0 ? http_files_hex(p[2]) : -1;
        if (*p == '%' && low < 0) return NETIO_EINVAL;
        out[n] = low < 0 ? *p : (char)(high * 16 + low);
        if (low >= 0) p += 2;
        if ((unsigned char)out[n] < 0x20 || out[n] == 0x7F) return NETIO_EINVAL;
        n++;
    }
    out[n] = 0;
    if (netio_utf8_check(&utf8, out, n, NULL) < 0 || utf8) return NETIO_EINVAL;
    for (size_t i = 0; i <= n; i++) {
        if (out[i] && out[i] != '/') continue;
        bool last = i == n && begin == n; // nothing behind the last slash
        if (!last && !http_files_shown(out + begin, i - begin)) return NETIO_ENOENT;
        begin = i + 1;
    }
    return (int)n;
}

// A name as it stands in a link, or in HTML text. Cut at a whole character if it does not fit.
static inline void http_files_link(char *out, size_t cap, const char *name)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";
    size_t n = 0;
    for (; *name && n + 4 <= cap; name++) {
        if (strchr(plain, *name)) out[n++] = *name;
        else n += (size_t)snprintf(out + n, cap - n, "%%%02X", (unsigned char)*name);
    }
    out[n] = 0;
}

static inline void http_files_html(char *out, size_t cap, const char *text)
{
    size_t n = 0;
    for (; *text && n + 6 <= cap; text++) {
        if (strchr("&<>\"'", *text)) n += (size_t)snprintf(out + n, cap - n, "&#%d;", *text);
        else out[n++] = *text;
    }
    out[n] = 0;
}

// "text/html; charset=utf-8" for "index.html"; bytes that nobody interprets for what is not known.
static inline const char *http_files_type(const char *name)
{
    // clang-format off
    static const char *const types[][2] = {
        {"html", "text/html; charset=utf-8"},   {"htm", "text/html; charset=utf-8"},
        {"txt",  "text/plain; charset=utf-8"},  {"md",  "text/markdown; charset=utf-8"},
        {"css",  "text/css; charset=utf-8"},    {"js",  "text/javascript; charset=utf-8"},
        {"csv",  "text/csv; charset=utf-8"},    {"mjs", "text/javascript; charset=utf-8"},
        {"json", "application/json"},           {"xml", "application/xml"},
        {"pdf",  "application/pdf"},            {"wasm", "application/wasm"},
        {"zip",  "application/zip"},            {"gz",  "application/gzip"},
        {"png",  "image/png"},                  {"jpg", "image/jpeg"},
        {"jpeg", "image/jpeg"},                 {"gif", "image/gif"},
        {"svg",  "image/svg+xml"},              {"ico", "image/x-icon"},
        {"webp", "image/webp"},                 {"woff2", "font/woff2"},
        {"mp3",  "audio/mpeg"},                 {"mp4", "video/mp4"},
        {"webm", "video/webm"}};
    // clang-format on
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++) {
        size_t len = strlen(dot + 1);
        if (strlen(types[i][0]) == len && http_files_begins(dot + 1, len, types[i][0]))
            return types[i][1];
    }
    return "application/octet-stream";
}

//------------------------------------------------------------------------------------------------
// Versions and pieces of a file
//------------------------------------------------------------------------------------------------

// "Sun, 06 Nov 1994 08:49:37 GMT" for seconds since 1970. (The program must not have called
// setlocale for times.)
static inline void http_files_date(char out[HTTP_FILES_DATE], int64_t when)
{
    time_t t = (time_t)when;
    struct tm *utc = gmtime(&t);
    if (!utc || !strftime(out, HTTP_FILES_DATE, "%a, %d %b %Y %H:%M:%S GMT", utc)) out[0] = 0;
}

// A tag for a file's content as it is `now`: it changes when number, size or time of change do. A
// file that was changed this very second may change again without any of them, so its tag is weak,
// and does not serve to join ranges.
static inline void http_files_etag(char out[HTTP_FILES_ETAG], uint64_t id, uint64_t size,
                                   int64_t changed, int64_t now)
{
    snprintf(out, HTTP_FILES_ETAG, "%s\"%llx-%llx-%llx\"", now - changed < 2 ? "W/" : "",
             (unsigned long long)id, (unsigned long long)size, (unsigned long long)changed);
}

// The conditions of a GET or HEAD: If-Match, If-None-Match, If-Modified-Since. Dates are compared
// as text, as clients send back what they were given.
// Returns 0: send it; 304, 412: send that instead.
static inline int http_files_conditions(const netio_http_head *head, const char *etag,
                                        const char *date)
{
    char weak[HTTP_FILES_ETAG + 2];
    snprintf(weak, sizeof weak, "%s%s", etag[0] == 'W' ? "" : "W/", etag);
    if (netio_http_field(head, "if-match").data && !netio_http_field_has(head, "if-match", "*") &&
        (etag[0] == 'W' || !netio_http_field_has(head, "if-match", etag)))
        return 412;
    if (!netio_http_field(head, "if-none-match").data)
        return netio_buf_equal(netio_http_field(head, "if-modified-since"), date) ? 304 : 0;
    return netio_http_field_has(head, "if-none-match", "*") ||
                   netio_http_field_has(head, "if-none-match", weak) ||
                   netio_http_field_has(head, "if-none-match", weak + 2)
               ? 304
               : 0;
}

static inline bool http_files_number(const char **at, const char *end, uint64_t *out)
{
    const char *p = *at;
    for (*out = 0; p < end && *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        *out = *out > (UINT64_MAX - digit) / 10 ? UINT64_MAX : *out * 10 + digit;
    }
    bool any = p > *at;
    *at = p;
    return any;
}

// Which bytes of a file of `size` bytes a request is about: Range, unless If-Range says that it is
// meant for another version. Several ranges, other units and nonsense count as no Range.
// Returns 1: these, 1 byte or more; 0: all of it; NETIO_EINVAL: the range is outside the file (416)
static inline int http_files_range(const netio_http_head *head, uint64_t size, const char *etag,
                                   const char *date, uint64_t *off, uint64_t *len)
{
    netio_buf field = netio_http_field(head, "range"), only = netio_http_field(head, "if-range");
    const char *p = (const char *)field.data, *end = p + field.len;
    uint64_t first = 0, last = 0;
    *off = 0;
    *len = size;
    if (field.len < 8 || !http_files_begins(p, field.len, "bytes=")) return 0;
    if (only.data &&
        (etag[0] == 'W' || !(netio_buf_equal(only, date) || netio_buf_equal(only, etag))))
        return 0;
    p += 6;
    bool has_first = http_files_number(&p, end, &first);
    if (p == end || *p++ != '-') return 0;
    bool has_last = http_files_number(&p, end, &last);
    if (p != end || (!has_first && !has_last) || (has_first && has_last && last < first)) return 0;
    if (!has_first) { // the last so many
        if (last == 0) return NETIO_EINVAL;
        *off = last < size ? size - last : 0;
    } else if (first >= size) {
        return NETIO_EINVAL;
    } else {
        *off = first;
        if (has_last && last < size) size = last + 1;
    }
    *len = size - *off;
    return *len > 0;
}

//------------------------------------------------------------------------------------------------
// Statuses
//------------------------------------------------------------------------------------------------

// "Not Found" for 404: those that a server of files needs; "Unknown" for others.
static inline const char *http_files_reason(int status)
{
    // clang-format off
    static const struct { int status; const char *text; } reasons[] = {
        {200, "OK"},                 {206, "Partial Content"},   {301, "Moved Permanently"},
        {304, "Not Modified"},       {400, "Bad Request"},       {403, "Forbidden"},
        {404, "Not Found"},          {405, "Method Not Allowed"}, {408, "Request Timeout"},
        {411, "Length Required"},    {412, "Precondition Failed"}, {413, "Content Too Large"},
        {414, "URI Too Long"},       {416, "Range Not Satisfiable"}, {417, "Expectation Failed"},
        {431, "Request Header Fields Too Large"}, {501, "Not Implemented"},
        {503, "Service Unavailable"}, {505, "HTTP Version Not Supported"}};
    // clang-format on
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status) return reasons[i].text;
    return "Unknown";
}

#endif // HTTP_FILES_H
