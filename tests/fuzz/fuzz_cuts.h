// What the fuzzers of decoders share besides fuzz.h: the check that a cut changes nothing.
#ifndef NETIO_FUZZ_CUTS_H
#define NETIO_FUZZ_CUTS_H

#include "fuzz.h"

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
#endif // NETIO_FUZZ_CUTS_H
