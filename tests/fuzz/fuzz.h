// What the fuzzers of decoders share: the check that a cut changes nothing, and the program around
// them without libFuzzer. The file that includes this has LLVMFuzzerTestOneInput, and if
// NETIO_LIBFUZZER is not defined `seeds` and `alphabet`; its first byte picks what is tried.
//
//     clang -g -fsanitize=fuzzer,address,undefined -DNETIO_LIBFUZZER ...
// Without libFuzzer it is a program of its own:
//     fuzz_X FILE...       replays the files
//     fuzz_X               replays the seeds, then mutations of them
//     fuzz_X --seeds DIR   writes the seeds as files, to begin a corpus with
#ifndef NETIO_FUZZ_H
#define NETIO_FUZZ_H

#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLDS(cond) ((cond) ? (void)0 : fuzz_broken(__FILE__, __LINE__, #cond))

static void fuzz_broken(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

static uint32_t fuzz_random(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

//================================================================================================
// Cuts
//================================================================================================

typedef struct fuzz_run {
    uint32_t sum; // over all that the frames said
    int frames, err;
    uint64_t offset, announced;
} fuzz_run;

static void fuzz_add(fuzz_run *r, const netio_frame *f)
{
    uint64_t said[6] = {f->offset, f->len, f->header_len, f->type, f->more, f->continues};
    HOLDS(f->data);
    r->sum = netio_crc32(r->sum, said, sizeof said);
    r->sum = netio_crc32(r->sum, f->data, f->len);
    if (f->header) r->sum = netio_crc32(r->sum, f->header, f->header_len);
    r->frames++;
}

// `seed` 0: all at once; else pieces of random length, each in a block of exactly that length.
static fuzz_run fuzz_decode(netio_framing framing, void *buf, size_t cap, const uint8_t *data,
                            size_t len, uint32_t seed)
{
    fuzz_run r;
    netio_decoder d;
    netio_frame f;
    size_t most = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 5 : 64;
    memset(&r, 0, sizeof r);
    HOLDS(netio_decoder_init(&d, framing, buf, cap) == 0);
    for (size_t at = 0, n; at < len && r.err == 0; at += n) {
        uint8_t *piece;
        n = seed ? 1 + fuzz_random(&seed) % most : len;
        if (n > len - at) n = len - at;
        piece = (uint8_t *)malloc(n);
        if (!piece) abort();
        memcpy(piece, data + at, n);
        HOLDS(netio_decoder_feed(&d, piece, n) == 0);
        while ((r.err = netio_decoder_next(&d, &f)) > 0) fuzz_add(&r, &f);
        if (r.err == 0 && seed % 2) HOLDS(netio_decoder_keep(&d) == 0);
        free(piece);
    }
    if (r.err == 0) {
        netio_decoder_end(&d);
        while ((r.err = netio_decoder_next(&d, &f)) > 0) fuzz_add(&r, &f);
        HOLDS(r.err < 0);
    }
    HOLDS(netio_decoder_next(&d, &f) == r.err); // it stays
    netio_decoder_blame(&d, &r.offset, &r.announced);
    HOLDS(r.offset <= len);
    netio_decoder_free(&d);
    return r;
}

// The same for every cut, with memory of its own and of the caller's. Returns what it was.
static fuzz_run fuzz_cuts(netio_framing framing, const uint8_t *data, size_t len)
{
    static uint8_t room[1 << 17];
    fuzz_run whole = fuzz_decode(framing, NULL, 0, data, len, 0);
    uint32_t seed = netio_crc32(1, data, len) | 1;
    for (int i = 0; i < 4; i++) {
        fuzz_run cut = fuzz_decode(framing, i % 2 ? room : NULL, i % 2 ? sizeof room : 0, data, len,
                                   i < 3 ? seed + (uint32_t)i : 3);
        HOLDS(whole.err == cut.err);
        HOLDS(whole.frames == cut.frames);
        HOLDS(whole.sum == cut.sum);
        HOLDS(whole.offset == cut.offset);
        HOLDS(whole.announced == cut.announced);
    }
    return whole;
}

//================================================================================================
// The program
//================================================================================================

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifndef NETIO_LIBFUZZER
typedef struct fuzz_seed {
    const char *bytes;
    size_t len;
} fuzz_seed;

// clang-format off
#define SEED(bytes) {bytes, sizeof(bytes) - 1}
// clang-format on
enum { FUZZ_ROUNDS = 100000, FUZZ_ROOM = 2048 };

// One to eight changes: a byte replaced, put in, taken out, or a piece of another seed put in.
static size_t fuzz_mutate(unsigned char *out, uint32_t *state, const fuzz_seed *seeds, size_t count,
                          const char *alphabet, size_t letters)
{
    const fuzz_seed *from = &seeds[fuzz_random(state) % count];
    size_t len = from->len;
    memcpy(out, from->bytes, len);
    for (uint32_t left = fuzz_random(state) % 8 + 1; left > 0; left--) {
        const fuzz_seed *other = &seeds[fuzz_random(state) % count];
        size_t at = 1 + fuzz_random(state) % len, start, piece;
        unsigned char c = (unsigned char)alphabet[fuzz_random(state) % letters];
        switch (fuzz_random(state) % 5) {
        case 0: // replace
            if (at < len) out[at] = c;
            break;
        case 1: // flip a bit
            if (at < len) out[at] ^= (unsigned char)(1u << fuzz_random(state) % 8);
            break;
        case 2: // take out
            if (at < len) memmove(out + at, out + at + 1, len-- - at - 1);
            break;
        default: // put in a byte, or a piece of another seed
            start = fuzz_random(state) % other->len;
            piece = fuzz_random(state) % 2 ? 1 : fuzz_random(state) % (other->len - start) + 1;
            if (len + piece > FUZZ_ROOM) break;
            memmove(out + at + piece, out + at, len - at);
            if (piece == 1) out[at] = c;
            else memcpy(out + at, other->bytes + start, piece);
            len += piece;
            break;
        }
    }
    return len;
}

static int fuzz_replay(const char *path)
{
    unsigned char *data = (unsigned char *)malloc(1u << 20);
    FILE *f = fopen(path, "rb");
    size_t len;
    if (!f || !data) {
        fprintf(stderr, "%s: cannot be read\n", path);
        if (f) fclose(f);
        free(data);
        return 1;
    }
    len = fread(data, 1, 1u << 20, f);
    fclose(f);
    LLVMFuzzerTestOneInput(data, len);
    free(data);
    return 0;
}

static int fuzz_write_seeds(const char *dir, const fuzz_seed *seeds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char path[1024];
        FILE *f;
        snprintf(path, sizeof path, "%s/seed-%02u", dir, (unsigned)i);
        f = fopen(path, "wb");
        if (!f || fwrite(seeds[i].bytes, 1, seeds[i].len, f) != seeds[i].len || fclose(f) != 0) {
            fprintf(stderr, "%s: cannot be written\n", path);
            return 1;
        }
    }
    printf("%u seeds\n", (unsigned)count);
    return 0;
}

static int fuzz_main(int argc, char **argv, const fuzz_seed *seeds, size_t count,
                     const char *alphabet, size_t letters)
{
    uint32_t state = 1;
    unsigned char data[FUZZ_ROOM];
    // Under valgrind and qemu, whose runner says so, each step takes ten times as long and more.
    int rounds = getenv("NETIO_TEST_UNDER") ? FUZZ_ROUNDS / 20 : FUZZ_ROUNDS;
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
        return fuzz_write_seeds(argv[2], seeds, count);
    for (int i = 1; i < argc; i++)
        if (fuzz_replay(argv[i]) != 0) return 1;
    if (argc == 1) {
        for (size_t i = 0; i < count; i++)
            LLVMFuzzerTestOneInput((const uint8_t *)seeds[i].bytes, seeds[i].len);
        for (int i = 0; i < rounds; i++)
            LLVMFuzzerTestOneInput(data,
                                   fuzz_mutate(data, &state, seeds, count, alphabet, letters));
    }
    printf("PASS %d\n", argc == 1 ? (int)count + rounds : argc - 1);
    return 0;
}

#define FUZZ_MAIN(seeds, alphabet)                                                                 \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return fuzz_main(argc, argv, seeds, sizeof seeds / sizeof seeds[0], alphabet,              \
                         sizeof alphabet);                                                         \
    }
#endif // NETIO_LIBFUZZER
#endif // NETIO_FUZZ_H
