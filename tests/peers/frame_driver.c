// Framing as a program of lines, for test_frame.py: one command a line, one line of answer.
//
//     encode FORMAT MAX HEX          OK hex=WIRE, or an error's name
//     decode FORMAT MAX CUT HEX      the error that ended it, frame=HEX for each frame, at=OFFSET
//     sum NAME HEX                   OK sum=HEX; NAME: sum32, crc32, crc32c
//     utf8 CUT HEX                   OK open=0 or 1, or EILSEQ at=POSITION
//
// CUT is the length of the pieces that are fed, 0: all at once. HEX may be "-" for nothing.
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 1 << 20 };

static uint8_t in[ROOM], out[ROOM];
static char line[2 * ROOM];

static void die(const char *what)
{
    printf("? %s\n", what);
    exit(2);
}

static size_t from_hex(uint8_t *to, const char *hex)
{
    size_t n = 0;
    if (strcmp(hex, "-") == 0) return 0;
    for (; hex[0] && hex[1]; hex += 2) {
        unsigned byte;
        if (sscanf(hex, "%2x", &byte) != 1) die("hex");
        to[n++] = (uint8_t)byte;
    }
    return n;
}

static void print_hex(const char *name, const uint8_t *p, size_t len)
{
    printf(" %s=", name);
    for (size_t i = 0; i < len; i++) printf("%02x", p[i]);
}

static netio_framing format(const char *name, size_t max)
{
    netio_framing f = netio_framing_line(max);
    bool little = strcmp(name, "u32-little") == 0, lax = strcmp(name, "varint-lax") == 0;
    f.crlf = strcmp(name, "crlf") == 0;
    if (strcmp(name, "line") == 0 || f.crlf) return f;
    if (strcmp(name, "u16") == 0) f = netio_framing_length(2, max);
    else if (strcmp(name, "u32") == 0 || little) f = netio_framing_length(4, max);
    else if (strcmp(name, "varint") == 0 || lax) f = netio_framing_varint(max);
    else if (strcmp(name, "netstring") == 0) f = netio_framing_netstring(max);
    else if (strcmp(name, "cobs") == 0) f = netio_framing_cobs(max);
    else if (strcmp(name, "slip") == 0) f = netio_framing_slip(max);
    else die("format");
    f.little = little;
    f.lax = lax;
    return f;
}

static void encode(const netio_framing *f, const uint8_t *data, size_t len)
{
    netio_frame frame;
    ptrdiff_t n;
    memset(&frame, 0, sizeof frame);
    frame.data = data;
    frame.len = len;
    n = netio_encode_into(out, sizeof out, f, &frame);
    printf("%s", n < 0 ? netio_errname(n) : "OK");
    if (n > 0) print_hex("hex", out, (size_t)n);
}

// The answer begins with the error, so the frames wait in `out`: length and bytes of each.
static void decode(const netio_framing *f, size_t cut, const uint8_t *data, size_t len)
{
    netio_decoder d;
    netio_frame frame;
    netio_cursor story = netio_cursor_put(out, sizeof out);
    size_t at = 0;
    uint64_t where;
    int r = netio_decoder_init(&d, *f, NULL, 0);
    while (r == 0) {
        size_t n = cut && cut < len - at ? cut : len - at;
        if (n) netio_decoder_feed(&d, data + at, n);
        else netio_decoder_end(&d);
        at += n;
        while ((r = netio_decoder_next(&d, &frame)) > 0) {
            netio_put_uint(&story, 4, frame.len);
            netio_put_bytes(&story, frame.data, frame.len);
        }
    }
    if (story.err) die("too much");
    printf("%s", netio_errname(r));
    at = story.off;
    story = netio_cursor_get(out, at);
    while (story.off < at) {
        size_t n = (size_t)netio_get_uint(&story, 4);
        print_hex("frame", (const uint8_t *)netio_get_bytes(&story, n), n);
    }
    netio_decoder_blame(&d, &where, NULL);
    printf(" at=%lu", (unsigned long)where);
    netio_decoder_free(&d);
}

static void sum(const char *name, const uint8_t *data, size_t len)
{
    uint32_t s = strcmp(name, "sum32") == 0   ? netio_sum32(0, data, len)
                 : strcmp(name, "crc32") == 0 ? netio_crc32(0, data, len)
                                              : netio_crc32c(0, data, len);
    printf("OK sum=x%08lx", (unsigned long)s);
}

static void utf8(size_t cut, const uint8_t *data, size_t len)
{
    uint32_t state = 0;
    size_t at = 0, bad;
    while (at < len) {
        size_t n = cut && cut < len - at ? cut : len - at;
        if (netio_utf8_check(&state, data + at, n, &bad) < 0) {
            printf("EILSEQ at=%lu", (unsigned long)(at + bad));
            return;
        }
        at += n;
    }
    printf("OK open=%d", state != 0);
}

int main(void)
{
    while (fgets(line, sizeof line, stdin)) {
        char *word[5];
        size_t n = 0;
        for (char *w = strtok(line, " \n"); w && n < 5; w = strtok(NULL, " \n")) word[n++] = w;
        size_t len = n > 0 ? from_hex(in, word[n - 1]) : 0;
        if (n == 4 && strcmp(word[0], "encode") == 0) {
            netio_framing f = format(word[1], (size_t)atol(word[2]));
            encode(&f, in, len);
        } else if (n == 5 && strcmp(word[0], "decode") == 0) {
            netio_framing f = format(word[1], (size_t)atol(word[2]));
            decode(&f, (size_t)atol(word[3]), in, len);
        } else if (n == 3 && strcmp(word[0], "sum") == 0) {
            sum(word[1], in, len);
        } else if (n == 3 && strcmp(word[0], "utf8") == 0) {
            utf8((size_t)atol(word[1]), in, len);
        } else {
            die("command");
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
