// websocket.c: what reading and writing WebSocket frames costs, next to copying their bytes.
//
//     cc -O2 -I. bench/websocket.c -o websocket && ./websocket        a few seconds
//     ./websocket --quick                                  a tenth of it: shows that it works
//
// Both sides of a ratio run in turns over the same number of bytes, and the best of many rounds
// counts: what disturbs one only ever makes it slower. Needs POSIX's clock; ends with 1 if a bar is
// missed, --quick never does.
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROOM = 256 * 1024 };

// Not at the same place of a page, which slows a copy down on many processors.
static uint8_t memory[3 * ROOM + 3 * 2048];
static uint8_t *const payload = memory, *const wire = memory + ROOM + 1024,
                      *const copy = memory + 2 * ROOM + 3 * 1024;
static size_t size, wire_len;  // of one payload, of all frames
static volatile uint64_t sink; // what is computed must not be left out

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// --- what is compared ----------------------------------------------------------------------------

static void copy_all(void)
{
    for (size_t at = 0; at + size <= ROOM - 16384; at += size)
        memcpy(copy + at, payload + at, size);
    sink += copy[sink % size];
}

static void mask_all(void)
{
    uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    for (size_t at = 0; at + size <= ROOM - 16384; at += size)
        netio__ws_mask(copy + at, payload + at, size, key);
    sink += copy[sink % size];
}

// The frames of `wire`, which lie there whole, as a server or a client reads them.
static void decode(bool client)
{
    netio_decoder d;
    netio_frame frame;
    uint64_t sum = 0;
    netio_decoder_init(&d, netio_framing_websocket(client, ROOM), copy, ROOM);
    netio_decoder_feed(&d, wire, wire_len);
    while (netio_decoder_next(&d, &frame) > 0) sum += frame.len + frame.data[0];
    sink += sum;
    netio_decoder_free(&d);
}

static void decode_masked(void) { decode(false); }
static void decode_plain(void) { decode(true); }

static void encode(bool client, bool with_key)
{
    netio_framing framing = netio_framing_websocket(client, ROOM);
    netio_frame f;
    memset(&f, 0, sizeof f);
    f.len = size;
    f.header = with_key ? (const uint8_t *)"\x37\xfa\x21\x3d" : NULL;
    f.header_len = with_key ? 4 : 0;
    for (size_t at = 0; at + size <= ROOM - 16384; at += size) {
        f.data = payload + at;
        sink += (uint64_t)netio_encode_into(copy, ROOM, &framing, &f);
    }
}

static void encode_key(void) { encode(true, true); }
static void encode_random(void) { encode(true, false); }

static void fill(unsigned type, bool masked)
{
    netio_framing framing = netio_framing_websocket(masked, ROOM);
    netio_frame f;
    memset(&f, 0, sizeof f);
    memset(payload, 'x', ROOM);
    f.type = type;
    f.len = size;
    for (size_t at = wire_len = 0; at + size <= ROOM - 16384; at += size) {
        f.data = payload + at;
        wire_len += (size_t)netio_encode_into(wire + wire_len, ROOM - wire_len, &framing, &f);
    }
}

typedef struct row {
    const char *name;
    void (*run)(void);
    size_t size;
    unsigned type;
    bool masked;
    double bar; // 0: none, for information
} row;

// clang-format off
static const row rows[] = {
    {"unmask 64 KiB", mask_all, 65536, NETIO_WS_BINARY, true, 0.5},
    {"unmask 1 KiB", mask_all, 1024, NETIO_WS_BINARY, true, 0.5},
    {"unmask 125 bytes", mask_all, 125, NETIO_WS_BINARY, true, 0},
    {"read binary, masked, 64 KiB", decode_masked, 65536, NETIO_WS_BINARY, true, 0},
    {"read binary, masked, 125 bytes", decode_masked, 125, NETIO_WS_BINARY, true, 0},
    {"read text, masked, 64 KiB", decode_masked, 65536, NETIO_WS_TEXT, true, 0},
    {"read text, 64 KiB", decode_plain, 65536, NETIO_WS_TEXT, false, 0.5},
    {"read binary, 125 bytes", decode_plain, 125, NETIO_WS_BINARY, false, 0},
    {"write masked, 1 KiB, key given", encode_key, 1024, NETIO_WS_BINARY, true, 0},
    {"write masked, 1 KiB, OS's key", encode_random, 1024, NETIO_WS_BINARY, true, 0},
};
// clang-format on

static double measure(void (*run)(void), int calls)
{
    double begin = now_s();
    for (int i = 0; i < calls; i++) run();
    return (now_s() - begin) / calls;
}

int main(int argc, char **argv)
{
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0, missed = false;
    int rounds = quick ? 5 : 60, calls = 10;
    printf("%-32s %8s %12s %7s %5s\n", "", "GB/s", "memcpy GB/s", "ratio", "bar");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const row *r = &rows[i];
        double best = 1e9, bare = 1e9, bytes;
        size = r->size;
        fill(r->type, r->masked);
        bytes = (double)((ROOM - 16384) / size * size);
        for (int k = 0; k < rounds; k++) {
            double t = measure(r->run, calls), b = measure(copy_all, calls);
            if (t < best) best = t;
            if (b < bare) bare = b;
        }
        printf("%-32s %8.2f %12.2f %7.2f", r->name, bytes / best / 1e9, bytes / bare / 1e9,
               bare / best);
        if (r->bar > 0) printf(" %5.1f%s", r->bar, bare / best < r->bar ? " missed" : "");
        missed = missed || bare / best < r->bar;
        printf("\n");
    }
    return missed && !quick;
}
