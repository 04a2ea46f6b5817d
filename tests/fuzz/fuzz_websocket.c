// WebSocket frames on any bytes, in both roles, as messages and as fragments. See fuzz.h.
#include "fuzz_cuts.h"

// Frames that were read are written again, read again, and give the same.
static void round_trip(bool client, bool fragments, const uint8_t *data, size_t len)
{
    netio_framing in = netio_framing_websocket(client, 0),
                  out = netio_framing_websocket(!client, 0);
    netio_decoder d, e;
    netio_frame f, g;
    static uint8_t wire[1 << 17];
    uint32_t key = 0x9e3779b9;
    in.fragments = fragments;
    HOLDS(netio_decoder_init(&d, in, NULL, 0) == 0 && netio_decoder_init(&e, in, NULL, 0) == 0);
    HOLDS(netio_decoder_feed(&d, data, len) == 0);
    while (netio_decoder_next(&d, &f) > 0) {
        if (f.len > sizeof wire - 20) break;
        if (f.type == NETIO_WS_CLOSE) {
            int code = netio_ws_close_code(f.data, f.len);
            HOLDS(code == 1005 || (code >= 1000 && code <= 4999 && f.len >= 2));
        }
        HOLDS(f.type == NETIO_WS_TEXT || f.type == NETIO_WS_BINARY ||
              (f.type >= NETIO_WS_CLOSE && f.type <= NETIO_WS_PONG && f.len <= 125));
        HOLDS(fragments || (!f.more && !f.continues));
        // What this side reads, the other side writes.
        netio_framing writer = out;
        f.header = writer.masked ? (const uint8_t *)&key : NULL;
        f.header_len = writer.masked ? sizeof key : 0;
        ptrdiff_t n = netio_encode_into(wire, sizeof wire, &writer, &f);
        HOLDS(n >= (ptrdiff_t)f.len + 2 && (size_t)n <= netio_encode_bound(&writer, f.len));
        HOLDS(netio_decoder_feed(&e, wire, (size_t)n) == 0);
        HOLDS(netio_decoder_next(&e, &g) == 1);
        HOLDS(g.type == f.type && g.more == f.more && g.continues == f.continues);
        HOLDS(g.len == f.len && memcmp(g.data, f.data, f.len) == 0);
        HOLDS(netio_decoder_next(&e, &g) == 0);
        key = key * 1664525 + 1013904223;
    }
    netio_decoder_free(&d);
    netio_decoder_free(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    netio_framing framing;
    if (size == 0) return 0;
    // A digit, so that seeds can be read: 1: this side is the client, 2: fragments, 4: small limit.
    unsigned how = (unsigned)(data[0] - 0x30);
    framing = netio_framing_websocket(how & 1, how & 4 ? 40 : 0);
    framing.fragments = (how & 2) != 0;
    fuzz_cuts(framing, data + 1, size - 1);
    if (size > 1) round_trip(how & 1, (how & 2) != 0, data + 1, size - 1);
    return 0;
}

#ifndef NETIO_LIBFUZZER
// clang-format off
#define KEY "\x37\xfa\x21\x3d"
static const fuzz_seed seeds[] = {
    SEED("1" "\x81\5Hello"), SEED("1" "\1\3Hel\x80\2lo"), SEED("1" "\x89\5Hello\x8a\0"),
    SEED("3" "\1\3caf\x89\1x\0\1\xc3\x80\1\xa9"), SEED("3" "\2\0\0\0\x80\0"),
    SEED("1" "\x88\2\3\xe8"), SEED("1" "\x88\x0a\3\xe9going\xc3\xa9!"), SEED("1" "\x88\0"),
    SEED("1" "\x82\x7e\0\x7e" "012345678901234567890123456789012345678901234567890123456789012"
         "345678901234567890123456789012345678901234567890123456789012345"),
    SEED("1" "\x82\x7f\0\0\0\0\0\1\0\0xyz"), SEED("1" "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"),
    SEED("0" "\x81\x85" KEY "\x7f\x9f\x4d\x51\x58"),
    SEED("0" "\x8a\x85" KEY "\x7f\x9f\x4d\x51\x58"),
    SEED("0" "\1\x83" KEY "\x7f\x9f\x4d\x89\x80" KEY "\x80\x82" KEY "\x5b\x95"),
    SEED("2" "\1\x83\0\0\0\0\xe2\x82\xac\x80\x81\0\0\0\0x"), SEED("0" "\x88\x82\0\0\0\0\3\xe8"),
    SEED("0" "\x82\xfe\0\x80" KEY "abcdefgh"), SEED("0" "\x81\x84\0\0\0\0\xf0\x9f\x98\x80"),
    SEED("5" "\x82\x29" "01234567890123456789012345678901234567890"),
    SEED("5" "\2\x14" "01234567890123456789" "\x80\x14" "01234567890123456789"),
    SEED("4" "\2\x94" KEY "01234567890123456789" "\x80\x95" KEY "012345678901234567890"),
    SEED("7" "\1\x28" "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80"
         "\xf0\x9f\x98\x80"
         "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80"
         "\x80\0"),
};
static const char alphabet[] =
    "\0\1\2\3\x7d\x7e\x7f\x80\x81\x82\x88\x89\x8a\xfe\xff\xc3\xa9\xf0\x9f x01";
// clang-format on

FUZZ_MAIN(seeds, alphabet)
#endif // NETIO_LIBFUZZER
