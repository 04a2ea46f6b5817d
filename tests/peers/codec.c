// netio's HTTP and WebSocket codecs for scripts: a command on each line of standard input, its
// answer on a line of standard output.
//
//     decode FORMAT SEED HEX     frames of these bytes, fed whole (SEED 0) or in pieces of random
//                                length: what ended it, the code to close with, then for each frame
//                                type,more,continues,payload,header
//     encode FORMAT TYPE,MORE,CONTINUES HEX      a frame as bytes
//     parse HEX                  an HTTP head: what it says, then name and value of each field
//     request HOST TARGET        a WebSocket request, and its key
//     answer HEX                 the answer to a request
//     check KEY HEX              the verdict on an answer
//     proxy HEX                  PROXY header: its length, both addresses, type=value for each TLV
//     header VERSION SOURCE DESTINATION SUM      a PROXY header; SUM 1: with its checksum
//     tunnel PROXY TARGET        begin to dial through a proxy: where to connect, what to send
//     told HEX                   what the proxy said: 1 if the tunnel is open, bytes used, to send
//
// FORMAT is client or server (WebSocket as that role reads and writes it), with "+fragments", head
// or chunked; ":1000" behind it is the limit. Bytes are hexadecimal, "-" for none. The first word
// of an answer is the error's name.
//
// Build: cc -I../.. codec.c -o codec
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *line; // grows with the longest
static size_t line_cap;

static void die(const char *what)
{
    printf("? %s\n", what);
    exit(2);
}

static bool read_line(void)
{
    size_t len = 0;
    for (int c; (c = getchar()) != '\n';) {
        if (c == EOF) return false;
        if (len + 1 >= line_cap) {
            line_cap = line_cap ? 2 * line_cap : 1024;
            line = (char *)realloc(line, line_cap);
            if (!line) die("memory");
        }
        line[len++] = (char)c;
    }
    if (line) line[len] = 0;
    return line != NULL;
}

// The bytes of a word in a block of exactly their number, to be freed.
static uint8_t *bytes(const char *word, size_t *len)
{
    size_t n = strcmp(word, "-") == 0 ? 0 : strlen(word) / 2;
    uint8_t *out = (uint8_t *)malloc(n ? n : 1);
    if (!out) die("memory");
    for (size_t i = 0; i < n; i++) {
        char digits[3] = {word[2 * i], word[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    *len = n;
    return out;
}

static void show(const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    if (len == 0) putchar('-');
    for (size_t i = 0; i < len; i++) printf("%02x", p[i]);
}

static netio_framing format(const char *word)
{
    const char *limit = strchr(word, ':');
    size_t max = limit ? (size_t)strtoul(limit + 1, NULL, 10) : 0;
    netio_framing f = strncmp(word, "head", 4) == 0 ? netio_framing_http_head(max)
                      : strncmp(word, "chunked", 7) == 0
                          ? netio_framing_chunked(max)
                          : netio_framing_websocket(*word == 'c', max);
    f.fragments = strstr(word, "+fragments") != NULL;
    return f;
}

static void decode(const char *name, const char *seed_text, const char *data_text)
{
    netio_decoder d;
    netio_frame f;
    uint32_t seed = (uint32_t)strtoul(seed_text, NULL, 10);
    size_t len, at = 0;
    uint8_t *data = bytes(data_text, &len);
    char *said = (char *)malloc(len * 4 + 65536);
    size_t said_len = 0;
    int err = netio_decoder_init(&d, format(name), NULL, 0);
    if (!said || err < 0) die("decoder");
    said[0] = 0;
    while (err == 0 && at < len) {
        seed = seed * 1664525u + 1013904223u;
        size_t n = seed_text[0] == '0' ? len : 1 + (seed >> 16) % (seed >> 28 ? 7 : 3000);
        if (n > len - at) n = len - at;
        err = netio_decoder_feed(&d, data + at, n);
        at += n;
        while (err == 0 && (err = netio_decoder_next(&d, &f)) > 0) {
            if (said_len + 2 * (f.len + f.header_len) + 100 > len * 4 + 65536) die("frames");
            said_len += (size_t)sprintf(said + said_len, " %u,%d,%d,", f.type, f.more, f.continues);
            for (size_t i = 0; i < f.len; i++)
                said_len += (size_t)sprintf(said + said_len, "%02x", f.data[i]);
            said[said_len++] = ',';
            for (size_t i = 0; i < f.header_len; i++)
                said_len += (size_t)sprintf(said + said_len, "%02x", f.header[i]);
            said[said_len] = 0;
            err = 0;
        }
    }
    printf("%s %d%s", netio_errname(err), netio_ws_close_code_for(err), said);
    netio_decoder_free(&d);
    free(said);
    free(data);
}

static void encode(const char *name, const char *kind, const char *data_text)
{
    netio_framing framing = format(name);
    netio_frame f;
    size_t len, cap;
    uint8_t *data = bytes(data_text, &len), *out;
    int more = 0, continues = 0;
    memset(&f, 0, sizeof f);
    sscanf(kind, "%u,%d,%d", &f.type, &more, &continues);
    f.more = more != 0;
    f.continues = continues != 0;
    f.data = len || framing.format == NETIO_FORMAT_WEBSOCKET ? data : NULL;
    f.len = len;
    cap = netio_encode_bound(&framing, len);
    out = (uint8_t *)malloc(cap);
    if (!out) die("memory");
    ptrdiff_t n = netio_encode_into(out, cap, &framing, &f);
    printf("%s ", netio_errname(n < 0 ? n : 0));
    show(out, n > 0 ? (size_t)n : 0);
    free(out);
    free(data);
}

static void parse(const char *data_text)
{
    static netio_http_head h;
    size_t len;
    uint8_t *data = bytes(data_text, &len);
    int err = netio_http_parse(&h, data, len);
    printf("%s", netio_errname(err));
    if (err == 0) {
        printf(" %d %d ", h.status, h.minor);
        show(h.method.data, h.method.len);
        putchar(' ');
        show(h.target.data, h.target.len);
        putchar(' ');
        show(h.reason.data, h.reason.len);
        printf(" %lld %d %d %d", (long long)h.content_length, h.chunked, h.keep_alive,
               h.upgrade_websocket);
        for (size_t i = 0; i < h.field_count; i++) {
            putchar(' ');
            show(h.names[i].data, h.names[i].len);
            putchar(' ');
            show(h.values[i].data, h.values[i].len);
        }
    }
    free(data);
}

static void request(const char *host, const char *target)
{
    char out[1024], key[25] = "-";
    ptrdiff_t n = netio_ws_request(out, sizeof out, host, target, key);
    printf("%s %s ", netio_errname(n < 0 ? n : 0), key);
    show(out, n > 0 ? (size_t)n : 0);
}

static void answer(const char *data_text)
{
    static netio_http_head h;
    char out[1024];
    size_t len, n = 0;
    uint8_t *data = bytes(data_text, &len);
    int err = netio_http_parse(&h, data, len);
    if (err == 0) err = netio_ws_answer(out, sizeof out, &n, &h);
    printf("%s ", netio_errname(err));
    show(out, n);
    free(data);
}

static void check(const char *key_text, const char *data_text)
{
    static netio_http_head h;
    size_t len;
    uint8_t *data = bytes(data_text, &len);
    char key[25];
    int err = netio_http_parse(&h, data, len);
    snprintf(key, sizeof key, "%s", key_text);
    printf("%s", netio_errname(err < 0 ? err : netio_ws_check(&h, key)));
    free(data);
}

static void show_address(const netio_addr *a)
{
    char text[NETIO_ADDR_TEXT] = "-";
    if (a->len) netio_addr_format(a, text, sizeof text);
    printf(" %s", text);
}

static void proxy(const char *data_text)
{
    netio_addr src, dst;
    netio_buf rest, value;
    size_t len;
    int type;
    uint8_t *data = bytes(data_text, &len);
    ptrdiff_t n = netio_proxy_parse(data, len, &src, &dst);
    printf("%s %d", netio_errname(n < 0 ? n : 0), (int)n);
    if (n > 0) {
        show_address(&src);
        show_address(&dst);
        rest = netio_proxy_tlvs(data, (size_t)n);
        while (netio_proxy_next_tlv(&rest, &type, &value) > 0) {
            printf(" %d=", type);
            show(value.data, value.len);
        }
    }
    free(data);
}

static void header(const char *version, const char *src_text, const char *dst_text, bool sum)
{
    netio_addr src, dst;
    uint8_t out[300];
    int err = netio_addr_parse(&src, src_text, strlen(src_text));
    if (err == 0) err = netio_addr_parse(&dst, dst_text, strlen(dst_text));
    if (err < 0) die("address");
    ptrdiff_t n = netio_proxy_write(out, sizeof out, atoi(version), &src, &dst);
    if (n > 0 && sum)
        n = netio_proxy_add_tlv(out, sizeof out, (size_t)n, NETIO_PROXY_CRC32C, NULL, 0);
    printf("%s ", netio_errname(n < 0 ? n : 0));
    show(out, n > 0 ? (size_t)n : 0);
}

static netio_tunnel tunnel;

static void show_output(void)
{
    netio_buf out = netio_tunnel_output(&tunnel);
    putchar(' ');
    show(out.data, out.len);
}

static void begin_tunnel(const char *through, const char *target)
{
    int err = netio_tunnel_init(&tunnel, through, target);
    printf("%s", netio_errname(err));
    if (err < 0) return;
    printf(" %s", tunnel.address);
    show_output();
}

static void told(const char *data_text)
{
    size_t len, used;
    uint8_t *data = bytes(data_text, &len);
    int r = netio_tunnel_input(&tunnel, data, len, &used);
    printf("%s %d %u", netio_errname(r < 0 ? r : 0), r, (unsigned)used);
    show_output();
    free(data);
}

int main(void)
{
    while (read_line()) {
        char *word[5];
        int count = 0;
        for (char *w = strtok(line, " "); w && count < 5; w = strtok(NULL, " ")) word[count++] = w;
        if (count == 4 && strcmp(word[0], "decode") == 0) decode(word[1], word[2], word[3]);
        else if (count == 4 && strcmp(word[0], "encode") == 0) encode(word[1], word[2], word[3]);
        else if (count == 2 && strcmp(word[0], "parse") == 0) parse(word[1]);
        else if (count == 3 && strcmp(word[0], "request") == 0) request(word[1], word[2]);
        else if (count == 2 && strcmp(word[0], "answer") == 0) answer(word[1]);
        else if (count == 3 && strcmp(word[0], "check") == 0) check(word[1], word[2]);
        else if (count == 2 && strcmp(word[0], "proxy") == 0) proxy(word[1]);
        else if (count == 5 && strcmp(word[0], "header") == 0)
            header(word[1], word[2], word[3], *word[4] == '1');
        else if (count == 3 && strcmp(word[0], "tunnel") == 0) begin_tunnel(word[1], word[2]);
        else if (count == 2 && strcmp(word[0], "told") == 0) told(word[1]);
        else die("no such command");
        putchar('\n');
        fflush(stdout);
    }
    free(line);
    return 0;
}
