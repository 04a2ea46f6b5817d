// The program around a fuzzer without libFuzzer. The file that includes this has
// LLVMFuzzerTestOneInput, and if NETIO_LIBFUZZER is not defined `seeds` and `alphabet`; the first
// byte picks what is tried.
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
#ifndef FUZZ_ROUNDS
#define FUZZ_ROUNDS 100000 // mutations
#endif
#ifndef FUZZ_ROOM
#define FUZZ_ROOM 2048 // bytes of one
#endif

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
