// RESP2 on any bytes, cut anywhere: every cut tells the same story as the whole; what was read can
// be looked into without a step outside of it, and is written again as it came. See fuzz.h.
//
// The first byte picks commands or replies and the limits; the rest is the stream.
#include "fuzz_cuts.h"

#include "../../examples/common/resp.h"

static const resp_limits tight = {.items_max = 5, .bulk_max = 12, .line_max = 10, .depth_max = 2};

static netio_framing framing_of(uint8_t pick)
{
    const resp_limits *limits = pick / 2 % 2 ? &tight : NULL;
    size_t max = pick / 4 % 2 ? 30 : 0;
    return pick % 2 ? resp_commands(limits, max) : resp_replies(limits, max);
}

// A copy of exactly the frame's bytes, so that a look beyond is seen.
static void look_into(const netio_frame *f)
{
    size_t len = f->header_len + f->len, items = 1, seen = 0;
    uint8_t *copy = (uint8_t *)malloc(len + 1);
    netio_frame again = *f;
    netio_buf args[8];
    resp_value v;
    if (!copy) abort();
    memcpy(copy, f->header ? f->header : f->data, len);
    again.header = f->header ? copy : NULL;
    again.data = copy + f->header_len;
    ptrdiff_t count = resp_args(&again, args, 8);
    for (ptrdiff_t i = 0; i < count; i++) {
        const uint8_t *at = (const uint8_t *)args[i].data;
        HOLDS(at >= copy && at + args[i].len <= copy + len);
    }
    HOLDS(f->type == RESP_INLINE || f->type == RESP_ARRAY || count == NETIO_EINVAL);
    for (resp_reader r = resp_read(&again); resp_next(&r, &v); seen++) {
        const uint8_t *at = (const uint8_t *)v.text.data;
        HOLDS(!at || (at >= copy && at + v.text.len <= copy + len));
        HOLDS(strchr("+-:$*_", (int)v.type));
        if (v.type == RESP_ARRAY) items += (size_t)v.number;
    }
    HOLDS(seen == (f->header ? items : 0));
    free(copy);
}

// The frame's bytes once more. Inline commands may have had a bare newline; nulls have two forms.
static void write_again(const netio_framing *framing, const netio_frame *f, const uint8_t *data)
{
    uint8_t wire[8192];
    if (f->len > 4096) return;
    ptrdiff_t n = netio_encode_into(wire, sizeof wire, framing, f);
    HOLDS(n > 0);
    if (f->type == RESP_INLINE || f->type == RESP_NULL) return;
    HOLDS(memcmp(wire, data + f->offset, (size_t)n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    netio_framing framing;
    netio_decoder d;
    netio_frame f;
    int r;
    if (size < 1) return 0;
    framing = framing_of((uint8_t)(data[0] - 0x30)); // digits, so that seeds can be read
    data++;
    size--;
    fuzz_cuts(framing, data, size);
    HOLDS(netio_decoder_init(&d, framing, NULL, 0) == 0);
    HOLDS(netio_decoder_feed(&d, data, size) == 0);
    while ((r = netio_decoder_next(&d, &f)) > 0) {
        look_into(&f);
        write_again(&framing, &f, data);
    }
    HOLDS(r == 0 || r == NETIO_EPROTO || r == NETIO_EMSGSIZE);
    netio_decoder_free(&d);
    return 0;
}

#ifndef NETIO_LIBFUZZER
// clang-format off
static const fuzz_seed seeds[] = {
    SEED("0+OK\r\n-ERR no\r\n:-12\r\n$5\r\nhello\r\n$-1\r\n*-1\r\n*0\r\n"),
    SEED("1*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\nPING\r\n*0\r\n\r\n*1\r\n$0\r\n\r\n"),
    SEED("2*2\r\n*2\r\n:1\r\n+a\r\n$12\r\n123456789012\r\n*3\r\n*1\r\n"),
    SEED("3*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\n123456789012\r\n0123456789\r\n*6\r\n"),
    SEED("4*2\r\n*2\r\n:9223372036854775807\r\n:-9223372036854775808\r\n+\r\n+x\r\n?$13\r\n"),
    SEED("5PING\r\n*1\r\n+PING\r\n*9\r\n*1\r\n$4\r\nPING\r\nGET a b\tc\n"),
    SEED("6$30\r\n123456789012345678901234567890\r\n*4\r\n:1\r\n+aaaa\r\n$3\r\nabc\r\n-b\r\n"),
    SEED("7*5\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n"
         "*2\r\n$9\r\n123456789\r\n$3\r\nabc\r\n"),
    SEED("8*5\r\n+\r\n+\r\n+\r\n+\r\n+\r\n:+5\r\n:-1\r\n"), SEED("9*1\r\n$1\r\na\r\nget  k \r\n"),
    SEED(":+OK\r\n*1\r\n*1\r\n*1\r\n+a\r\n"),
    SEED(";*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n"),
};
// clang-format on
static const char alphabet[] = "0123456789$*+-:\r\n\r\n\r\n aP_?\0\377";

FUZZ_MAIN(seeds, alphabet)
#endif // NETIO_LIBFUZZER
