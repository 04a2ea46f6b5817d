// One input for a decoder, in every way of cutting it. What it says must not depend on the cut.
//
// A run is a transcript: each frame with all that it says and a sum of its bytes, then what ended
// it. Every piece lies in a block of exactly its length that is overwritten and freed as soon as
// the decoder has no more right to it, so that a byte too far, or a look back, is seen; fed whole,
// it also ends where the next page cannot be read. Include this first.
#ifndef NETIO_TEST_CUTS_H
#define NETIO_TEST_CUTS_H

#if !defined(_WIN32) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE // MAP_ANONYMOUS under -std=c99
#endif
#include "test.h"

#ifndef _WIN32
#include <sys/mman.h>
#endif

typedef struct cuts {
    netio_framing framing;
    void *buf; // for the decoder; NULL: it allocates
    size_t cap;
    bool end; // say that no more will come
    char log[4096];
    size_t len;
    size_t fed; // bytes given to the decoder when it was over
    int err;    // what ended it; 0: the input did
    int frames;
} cuts;

static void cuts_say(cuts *c, const char *format, unsigned long long a, unsigned long long b,
                     unsigned long long d)
{
    int n = snprintf(c->log + c->len, sizeof c->log - c->len, format, a, b, d);
    c->len += (size_t)n < sizeof c->log - c->len ? (size_t)n : sizeof c->log - c->len - 1;
}

static void cuts_say_frame(cuts *c, const netio_frame *f)
{
    cuts_say(c, "[%llu +%llu %08llx", (unsigned long long)f->offset, (unsigned long long)f->len,
             netio_crc32(0, f->data, f->len));
    cuts_say(c, " type %llu more %llu later %llu", f->type, f->more, f->continues);
    if (f->header)
        cuts_say(c, " header +%llu %08llx", (unsigned long long)f->header_len,
                 netio_crc32(0, f->header, f->header_len), 0);
    cuts_say(c, "]\n", 0, 0, 0);
    c->frames++;
}

static int cuts_drain(cuts *c, netio_decoder *d)
{
    netio_frame f;
    int r;
    while ((r = netio_decoder_next(d, &f)) > 0) cuts_say_frame(c, &f);
    return r;
}

enum { CUTS_GUARDED = 65536 }; // a multiple of every page size

#ifdef _WIN32
static unsigned char *cuts_guard(void) { return NULL; } // exact blocks must do
#else
// The end of memory behind which nothing can be read.
static unsigned char *cuts_guard(void)
{
    static unsigned char *end;
    if (end) return end;
    void *p =
        mmap(NULL, 2 * CUTS_GUARDED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (mprotect((unsigned char *)p + CUTS_GUARDED, CUTS_GUARDED, PROT_NONE) != 0) return NULL;
    end = (unsigned char *)p + CUTS_GUARDED;
    return end;
}
#endif

// `first` bytes, then pieces of `step` bytes; 0: all the rest.
static void cuts_run(cuts *c, const void *data, size_t len, size_t first, size_t step)
{
    netio_decoder d;
    uint64_t offset, announced;
    c->len = c->fed = 0;
    c->frames = c->err = 0;
    c->log[0] = 0;
    CHECK_OK(netio_decoder_init(&d, c->framing, c->buf, c->cap));
    while (c->fed < len && c->err == 0) {
        size_t n = c->fed == 0 && first ? first : step ? step : len;
        if (n > len - c->fed) n = len - c->fed;
        unsigned char *end = step == 0 && n == len && n <= CUTS_GUARDED ? cuts_guard() : NULL;
        unsigned char *piece = end ? end - n : (unsigned char *)malloc(n);
        if (!piece) abort();
        memcpy(piece, (const char *)data + c->fed, n);
        c->fed += n;
        CHECK_OK(netio_decoder_feed(&d, piece, n));
        c->err = cuts_drain(c, &d);
        memset(piece, 0x5A, n);
        if (!end) free(piece);
    }
    if (c->end && c->err == 0) {
        netio_decoder_end(&d);
        c->err = cuts_drain(c, &d);
    }
    netio_decoder_blame(&d, &offset, &announced);
    if (c->err < 0)
        cuts_say(c, "error %lld at %llu size %llu\n", (unsigned long long)-c->err, offset,
                 announced);
    netio_decoder_free(&d);
}

// All two-way cuts, one byte at a time, two and three, whole: with memory of its own and with `buf`
// of the caller's. Returns with the whole run's transcript in `c`.
static void cuts_all(cuts *c, const void *data, size_t len)
{
    static cuts other;
    void *buf = c->buf;
    cuts_run(c, data, len, 0, 0);
    for (int own = 0; own < (buf ? 2 : 1); own++) {
        for (size_t first = 1; first <= len; first++) {
            other = *c;
            other.buf = own ? NULL : buf;
            cuts_run(&other, data, len, first, 0);
            CHECK_STR(c->log, other.log);
        }
        for (size_t step = 1; step <= 3; step++) {
            other = *c;
            other.buf = own ? NULL : buf;
            cuts_run(&other, data, len, 0, step);
            CHECK_STR(c->log, other.log);
        }
    }
}

// The bytes that had to be there before the error showed, one at a time.
static size_t cuts_error_at(const cuts *c, const void *data, size_t len)
{
    static cuts other;
    other = *c;
    cuts_run(&other, data, len, 0, 1);
    CHECK_EQ(c->err, other.err);
    return other.fed;
}
#endif // NETIO_TEST_CUTS_H
