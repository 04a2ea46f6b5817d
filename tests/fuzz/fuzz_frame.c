// Frame decoders on any bytes, cut anywhere: every cut tells the same story as the whole, also
// where the format changes on the way, memory stays within what the format allows, and what was
// encoded comes back. UTF-8 likewise. See fuzz.h.
//
// The first byte picks the format, the second the one that is changed to after two frames, the
// third the cuts; the rest is the stream.
#include "fuzz_cuts.h"

// --- formats -------------------------------------------------------------------------------------

enum { MAX = 40 };

// A digit that says how many bytes follow; '-' is skipped.
static ptrdiff_t digit_parse(const netio_framing *framing, const uint8_t *data, size_t len,
                             netio_frame *out, size_t *need)
{
    (void)framing;
    if (data[0] == '-') return 1;
    if (data[0] < '0' || data[0] > '9') return NETIO_EPROTO;
    *need = (size_t)(data[0] - '0') + 1;
    if (len < *need) return 0;
    out->data = data + 1;
    out->len = *need - 1;
    return (ptrdiff_t)*need;
}

static int digit_wrap(netio_envelope *out, const netio_framing *framing, const netio_frame *frame)
{
    (void)framing;
    if (frame->len > 9) return NETIO_EMSGSIZE;
    out->head_len = 1;
    out->head[0] = (uint8_t)('0' + frame->len);
    out->tail_len = 0;
    return 0;
}

static const netio_format_ops digit = {digit_parse, digit_wrap};

static netio_framing framing_of(uint8_t pick)
{
    netio_framing f = netio_framing_line(MAX);
    switch (pick % 19) {
    case 0: break;
    case 1: f.skip = true; break;
    case 2: f.keep = f.crlf = true; break;
    case 3: f = netio_framing_delimiter("\r\n\r\n", 4, MAX); break;
    case 4:
        f = netio_framing_delimiter("ab\0a", 4, MAX);
        f.skip = true;
        break;
    case 5: f = netio_framing_fixed(7); break;
    case 6: f = netio_framing_length(1, MAX); break;
    case 7:
        f = netio_framing_length(2, MAX);
        f.header = 5;
        f.offset = 1;
        f.adjust = -5;
        f.little = true;
        break;
    case 8:
        f = netio_framing_length(8, SIZE_MAX);
        f.adjust = 3;
        break;
    case 9:
        f = netio_framing_length(3, MAX);
        f.header = 12;
        f.offset = 2;
        f.check = NETIO_CHECK_SUM32;
        f.check_offset = 6;
        f.magic_len = 2;
        memcpy(f.magic, "ab", 2);
        break;
    case 10: f = netio_framing_varint(MAX); break;
    case 11:
        f = netio_framing_varint(300);
        f.lax = true;
        break;
    case 12: f = netio_framing_netstring(MAX); break;
    case 13: f = netio_framing_cobs(MAX); break;
    case 14:
        f = netio_framing_cobs(300);
        f.skip = true;
        break;
    case 15: f = netio_framing_slip(MAX); break;
    case 16:
        f = netio_framing_slip(8);
        f.skip = true;
        break;
    case 17: f = netio_framing_custom(&digit, NULL, MAX); break;
    default: memset(&f, 0, sizeof f); break;
    }
    return f;
}

// The most that the decoder may hold; private, but memory is what this is about.
static size_t memory_limit(const netio_framing *f, size_t fed)
{
    size_t max = f->max && f->max < fed ? f->max : fed;
    return (f->format == NETIO_FORMAT_SLIP ? 2 : 1) * max + max / 254 + 256 +
           sizeof(netio_envelope);
}

// --- stories -------------------------------------------------------------------------------------

// What a decoder made of a stream: a running sum over its frames, and the end of it.
typedef struct story {
    uint32_t sum;
    uint64_t frames, bytes, at, size, skipped;
    size_t rest;
    int err;
} story;

static void tell(story *s, const netio_frame *f)
{
    uint8_t numbers[16];
    netio_cursor cur = netio_cursor_put(numbers, sizeof numbers);
    HOLDS(f->data != NULL);
    HOLDS(!f->header || f->header + f->header_len == f->data);
    netio_put_uint(&cur, 8, f->offset);
    netio_put_uint(&cur, 8, f->len);
    s->sum = netio_crc32(s->sum, numbers, sizeof numbers);
    s->sum = netio_crc32(s->sum, f->data, f->len);
    s->frames++;
    s->bytes += f->len;
}

// Without framing a cut makes other frames, so only the bytes count.
static void tell_raw(story *s, const netio_frame *f)
{
    s->sum = netio_crc32(s->sum, f->data, f->len);
    s->bytes += f->len;
}

static size_t rest_of(const netio_decoder *d)
{
    netio_buf rest[2];
    size_t count = netio_decoder_rest(d, rest), len = 0;
    HOLDS(count <= 2);
    for (size_t i = 0; i < count; i++) len += rest[i].len;
    return len;
}

static int take(netio_decoder *d, story *s, const netio_framing *second)
{
    netio_frame f;
    int r;
    while ((r = netio_decoder_next(d, &f)) > 0) {
        if (d->framing.format == NETIO_FORMAT_RAW) tell_raw(s, &f);
        else tell(s, &f);
        if (s->frames == 2 && d->framing.format != second->format)
            HOLDS(netio_decoder_set_framing(d, *second) == 0);
    }
    return r;
}

// `seed` 0: all at once; else in pieces of random sizes.
static void run(story *s, const netio_framing *first, const netio_framing *second,
                const uint8_t *data, size_t len, uint32_t seed)
{
    netio_decoder d;
    netio_frame f;
    size_t at = 0;
    int r = 0;
    memset(s, 0, sizeof *s);
    HOLDS(netio_decoder_init(&d, *first, NULL, 0) == 0);
    while (at < len && r == 0) {
        uint32_t cut = seed ? fuzz_random(&seed) : 0;
        size_t n = !seed ? len : cut % 3 == 0 ? 1 : 1 + cut / 3 % (cut % 3 == 1 ? 6 : 100);
        uint8_t *piece;
        if (n > len - at) n = len - at;
        piece = (uint8_t *)malloc(n);
        if (!piece) abort();
        memcpy(piece, data + at, n);
        HOLDS(netio_decoder_feed(&d, piece, n) == 0);
        r = take(&d, s, second);
        if (r < 0) s->rest = len - at - n + rest_of(&d);
        at += n;
        HOLDS(r != 0 || rest_of(&d) == d.left);
        HOLDS(d.cap <= memory_limit(first, at) || d.cap <= memory_limit(second, at));
        if (seed && cut / 400 % 5 == 0 && r == 0) HOLDS(netio_decoder_keep(&d) == 0);
        free(piece);
        if (r < 0) d.in_len = d.left = 0; // they lay in the piece
    }
    if (r == 0) {
        netio_decoder_end(&d);
        r = take(&d, s, second);
        s->rest = rest_of(&d);
    }
    HOLDS(r < 0 && netio_decoder_next(&d, &f) == r);
    s->err = r;
    netio_decoder_blame(&d, &s->at, &s->size);
    s->skipped = netio_decoder_skipped(&d);
    HOLDS(s->at + s->rest == len);
    netio_decoder_free(&d);
}

static void same(const story *a, const story *b)
{
    HOLDS(a->err == b->err);
    HOLDS(a->frames == b->frames && a->bytes == b->bytes && a->sum == b->sum);
    HOLDS(a->at == b->at && a->rest == b->rest && a->skipped == b->skipped);
    HOLDS(a->size == b->size);
}

// What was encoded comes back, and nothing else with it.
static void try_encode(const netio_framing *f, const uint8_t *data, size_t len)
{
    netio_frame frame, out;
    netio_decoder d;
    size_t cap = netio_encode_bound(f, len);
    uint8_t *wire = (uint8_t *)malloc(cap);
    ptrdiff_t n;
    if (!wire) abort();
    memset(&frame, 0, sizeof frame);
    frame.data = data;
    frame.len = len;
    n = netio_encode_into(wire, cap, f, &frame);
    HOLDS(n != NETIO_ENOSPC);
    if (n > 0) {
        uint8_t *exact = (uint8_t *)malloc((size_t)n);
        if (!exact) abort();
        HOLDS(netio_encode_into(exact, (size_t)n, f, &frame) == n);
        HOLDS(memcmp(exact, wire, (size_t)n) == 0);
        HOLDS(netio_encode_into(exact, (size_t)n - 1, f, &frame) == NETIO_ENOSPC);
        HOLDS(netio_decoder_init(&d, *f, NULL, 0) == 0);
        HOLDS(netio_decoder_feed(&d, wire, (size_t)n) == 0);
        HOLDS(netio_decoder_next(&d, &out) == 1);
        // One CR before the LF belongs to the line end, whoever wrote it.
        if (f->format == NETIO_FORMAT_LINE && len && data[len - 1] == '\r' && !f->crlf) len--;
        HOLDS(f->keep ? out.len >= len : out.len == len);
        HOLDS(memcmp(out.data, data, len) == 0);
        HOLDS(netio_decoder_next(&d, &out) == 0);
        netio_decoder_free(&d);
        free(exact);
    }
    free(wire);
}

static void try_utf8(const uint8_t *data, size_t len, uint32_t seed)
{
    uint32_t whole = 0, state = 0;
    size_t bad = len, where = len, at = 0;
    int err = netio_utf8_check(&whole, data, len, &bad), r = 0;
    while (at < len && r == 0) {
        size_t n = 1 + fuzz_random(&seed) % 20;
        if (n > len - at) n = len - at;
        r = netio_utf8_check(&state, data + at, n, &where);
        if (r < 0) where += at;
        at += n;
    }
    HOLDS(r == err && state == whole && bad == (r < 0 ? where : len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    netio_framing first, second;
    story whole, cut;
    uint32_t seed;
    if (size < 3) return 0;
    first = framing_of((uint8_t)(data[0] - 0x30)); // digits, so that seeds can be read
    second = framing_of((uint8_t)(data[1] - 0x30));
    seed = data[2] * 2654435761u + 1;
    data += 3;
    size -= 3;
    if (first.format != NETIO_FORMAT_RAW) fuzz_cuts(first, data, size);
    run(&whole, &first, &second, data, size, 0);
    for (int i = 0; i < 2; i++) {
        run(&cut, &first, &second, data, size, fuzz_random(&seed));
        same(&whole, &cut);
    }
    try_encode(&first, data, size);
    try_utf8(data, size, seed);
    return 0;
}

#ifndef NETIO_LIBFUZZER
// clang-format off
static const fuzz_seed seeds[] = {
    SEED("0010a line\nanother\r\n\r\nand a tail"),
    SEED("1=1a\n0123456789012345678901234567890123456789x\nb\n"), SEED("2010kept\r\n\nend"),
    SEED("301head\r\n\r\nmore\r\nof it\r\n\r\n"), SEED("401aab\0aab\0ab\0a"),
    SEED("5011234567abcdefg123"), SEED("601\5hello\0\1x\51" "01234567890123456789"),
    SEED("701H\12\0..hello"), SEED("801\0\0\0\0\0\0\0\2hello\377\377\377\377\377\377\377\377"),
    SEED("901ab\0\0\2.\0\0\1\360..hiab\0\0\0.\0\0\1\43.."), SEED(":01\5hello\0\200\1"),
    SEED(";01\205\0hello\254\2" "0123456789"), SEED("<015:hello,0:,12:hello world!,05:"),
    SEED("=01\6hello\0\3a\1\1\0\0\2"), SEED(">01\5ab\0\2a\0\377aaa\0"),
    SEED("?01\300hello\300\333\334\333\335\300\333x"),
    SEED("@01ab\333\300cd\300" "0123456789\300x\300"), SEED("A015hello0-3abc-x"),
    SEED("B01raw bytes"), SEED("0601a\nb\n\5hello\0"), SEED("6001\1a\1bline\nline\n"),
    SEED("<=113:abc,1:x,\2a\0\2b\0"), SEED("0B0a\nb\nrest of it"),
};
// clang-format on
static const char alphabet[] =
    "0123456789abcdefAB:,\n\r\n\r\0\1\2\5\12\47\50\51\300\333\334\377\200";

FUZZ_MAIN(seeds, alphabet)
#endif // NETIO_LIBFUZZER
