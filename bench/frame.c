// frame.c: what decoding frames costs, next to the least that any decoder must do.
//
//     cc -O2 -I. bench/frame.c -o frame && ./frame        a few seconds
//     ./frame --quick                                     a tenth of it: shows that it works
//
// Each line is netio's speed, the speed of what stands below it, their ratio and the bar for that.
// Both run in turns over the same bytes, and the best of many rounds counts: what disturbs one only
// ever makes it slower. Needs POSIX's clock; ends with 1 if a bar is missed, --quick never does.
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIECE = 256 * 1024, FRAME = 64, TEXT = 64 * 1024 };

// Not at the same place of a page, which slows a copy down on many processors.
static uint8_t memory[2 * PIECE + 2048], *const piece = memory, *const copy = memory + PIECE + 2048;
static volatile uint64_t sink; // what is computed must not be left out

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// --- what is compared ----------------------------------------------------------------------------

static void decode(netio_framing f)
{
    netio_decoder d;
    netio_frame frame;
    uint64_t sum = 0;
    netio_decoder_init(&d, f, NULL, 0);
    netio_decoder_feed(&d, piece, PIECE);
    while (netio_decoder_next(&d, &frame) > 0) sum += frame.len + frame.data[0];
    sink += sum;
    netio_decoder_free(&d);
}

static void line_netio(void) { decode(netio_framing_line(1000)); }

static void line_bare(void)
{
    const uint8_t *p = piece, *end = piece + PIECE, *nl;
    uint64_t sum = 0;
    while ((nl = (const uint8_t *)memchr(p, '\n', (size_t)(end - p))) != NULL) {
        sum += (uint64_t)(nl - p) + p[0];
        p = nl + 1;
    }
    sink += sum;
}

static void length_netio(void) { decode(netio_framing_length(4, 1000)); }

static void length_bare(void)
{
    const uint8_t *p = piece, *end = piece + PIECE;
    uint64_t sum = 0;
    while (p < end) {
        uint32_t len = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        sum += len + p[4];
        p += 4 + len;
    }
    sink += sum;
}

static void varint_netio(void) { decode(netio_framing_varint(1000)); }

static void varint_bare(void)
{
    const uint8_t *p = piece, *end = piece + PIECE;
    uint64_t sum = 0;
    while (p < end) {
        sum += p[0] + (uint64_t)p[1];
        p += 1 + p[0];
    }
    sink += sum;
}

static void copy_bare(void)
{
    memcpy(copy, piece, TEXT);
    sink += copy[sink % TEXT];
}

static void utf8_netio(void)
{
    uint32_t state = 0;
    sink += (uint64_t)netio_utf8_check(&state, piece, TEXT, NULL);
}

static void crc_netio(void) { sink += netio_crc32(0, piece, TEXT); }

static void cobs_netio(void) { decode(netio_framing_cobs(1000)); }

static void slip_netio(void) { decode(netio_framing_slip(1000)); }

// --- the bytes -----------------------------------------------------------------------------------

// Frames of FRAME bytes on the wire, payload of `c`, with a blank in it.
static void fill(const char *head, size_t head_len, int c, int tail)
{
    for (size_t i = 0; i < PIECE; i += FRAME) {
        memset(piece + i, c, FRAME);
        if (head_len) memcpy(piece + i, head, head_len);
        if (tail >= 0) piece[i + FRAME - 1] = (uint8_t)tail;
    }
}

static void fill_lines(void) { fill("", 0, 'x', '\n'); }
static void fill_length(void) { fill("\0\0\0\74", 4, 'x', -1); }
static void fill_varint(void) { fill("\77", 1, 'x', -1); }
static void fill_text(void) { fill("", 0, 'x', -1); }
static void fill_cobs(void) { fill("\36xxxxxxxxxxxxxxxxxxxxxxxxxxxxx\41", 31, 'x', 0); }
static void fill_slip(void) { fill("xx\xDB\xDC", 4, 'x', 0xC0); }

typedef struct row {
    const char *name, *below;
    void (*fill)(void);
    void (*netio)(void);
    void (*bare)(void);
    size_t bytes;
    double bar; // 0: none, for information
} row;

// clang-format off
static const row rows[] = {
    {"lines of 64 bytes", "memchr a line", fill_lines, line_netio, line_bare, PIECE, 0.5},
    {"length and 60 bytes", "pointer walk", fill_length, length_netio, length_bare, PIECE, 0.3},
    {"varint and 63 bytes", "pointer walk", fill_varint, varint_netio, varint_bare, PIECE, 0},
    {"COBS, 64 bytes", "memcpy", fill_cobs, cobs_netio, copy_bare, PIECE, 0},
    {"SLIP, 64 bytes", "memcpy", fill_slip, slip_netio, copy_bare, PIECE, 0},
    {"UTF-8 check of ASCII", "memcpy", fill_text, utf8_netio, copy_bare, TEXT, 0.5},
    {"CRC-32", "memcpy", fill_text, crc_netio, copy_bare, TEXT, 0},
};
// clang-format on

// Seconds of one call, over a batch of half a millisecond.
static double measure(void (*run)(void))
{
    double begin = now_s(), end;
    int calls = 0;
    do {
        run();
        calls++;
        end = now_s();
    } while (end - begin < 0.0005);
    return (end - begin) / calls;
}

int main(int argc, char **argv)
{
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0, missed = false;
    int rounds = quick ? 5 : 500;
    printf("%-22s %10s  %-16s %10s %7s %5s\n", "", "GB/s", "next to", "GB/s", "ratio", "bar");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const row *r = &rows[i];
        double best = 1e9, bare = 1e9, ratio;
        size_t below = r->bare == copy_bare ? TEXT : r->bytes;
        r->fill();
        for (int k = 0; k < rounds; k++) {
            double t = measure(r->netio), b = measure(r->bare);
            if (t < best) best = t;
            if (b < bare) bare = b;
        }
        ratio = (bare / (double)below) / (best / (double)r->bytes);
        printf("%-22s %10.2f  %-16s %10.2f %7.2f", r->name, (double)r->bytes / best / 1e9, r->below,
               (double)below / bare / 1e9, ratio);
        if (r->bar > 0) printf(" %5.1f%s", r->bar, ratio < r->bar ? " missed" : "");
        missed = missed || ratio < r->bar;
        printf("\n");
    }
    return missed && !quick;
}
