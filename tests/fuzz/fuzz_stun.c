// STUN on any bytes: what is read lies inside of them, what a server answers is right and small,
// and what was read can be written again. See fuzz.h.
//
// The first byte says what else is done to the datagram, which is the rest: its length set right,
// and a fingerprint added, so that more of them come in.
#include "fuzz.h"

#include "../../examples/common/stun.h"

static void inside(netio_buf piece, const uint8_t *data, size_t len)
{
    const uint8_t *at = (const uint8_t *)piece.data;
    HOLDS(!at || (at >= data && piece.len <= len && at - data <= (ptrdiff_t)(len - piece.len)));
}

static void look_into(const stun_message *m, const uint8_t *data, size_t len)
{
    HOLDS(stun_looks_like(data, len));
    HOLDS(m->data == data && m->len == len && len <= STUN_MAX);
    HOLDS((m->type & ~0x0110) == 1);
    HOLDS(stun_is(m, data + 8));
    HOLDS(m->unknown_count <= STUN_UNKNOWN_MAX && m->refused_count <= STUN_UNKNOWN_MAX);
    HOLDS(m->error == 0 || (m->error >= 300 && m->error <= 699));
    HOLDS(m->mapped.len == 0 || netio_addr_ip(&m->mapped).len > 0);
    HOLDS(m->integrity == 0 || m->integrity + 24 <= len);
    inside(m->software, data, len);
    inside(m->username, data, len);
    inside(m->reason, data, len);
    HOLDS(!stun_check_integrity(m, "key", 3)); // nobody guesses that
}

static void answer(const stun_message *m, const uint8_t *data, size_t len)
{
    uint8_t out[128];
    netio_addr from;
    stun_message got;
    HOLDS(netio_addr_loopback(&from, len % 2 ? NETIO_IPV4 : NETIO_IPV6, 7) == 0);
    ptrdiff_t n = stun_answer(out, sizeof out, data, len, &from, NULL);
    HOLDS(n >= 0 && n <= 100);
    HOLDS((n > 0) == (m && m->type == STUN_REQUEST));
    if (n == 0) return;
    HOLDS(stun_parse(&got, out, (size_t)n) == 0);
    HOLDS(stun_is(&got, m->id) && got.fingerprint == m->fingerprint);
    HOLDS(got.type == (m->unknown_count ? STUN_ERROR : STUN_SUCCESS));
    HOLDS(m->unknown_count ? got.error == 420 : netio_addr_equal(&from, &got.mapped));
}

// An address and a sum go around.
static void write_again(const stun_message *m)
{
    uint8_t out[256];
    stun_message got;
    ptrdiff_t n = stun_write(out, sizeof out, m->type, m->id);
    if (m->mapped.len) n = stun_add_xor_mapped(out, sizeof out, (size_t)n, &m->mapped);
    if (m->refused_count)
        n = stun_add_unknown(out, sizeof out, (size_t)n, m->refused, m->refused_count);
    n = stun_add_integrity(out, sizeof out, (size_t)n, "key", 3);
    n = stun_add_fingerprint(out, sizeof out, (size_t)n);
    HOLDS(n > 0 && stun_parse(&got, out, (size_t)n) == 0);
    HOLDS(got.type == m->type && stun_is(&got, m->id) && got.fingerprint);
    HOLDS(got.mapped.len == m->mapped.len);
    HOLDS(!m->mapped.len || netio_addr_equal(&got.mapped, &m->mapped));
    HOLDS(got.refused_count == m->refused_count);
    HOLDS(memcmp(got.refused, m->refused, sizeof got.refused) == 0);
    HOLDS(stun_check_integrity(&got, "key", 3) && !stun_check_integrity(&got, "kez", 3));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stun_message m;
    if (size < 1) return 0;
    size_t len = size - 1, cap = len + 8;
    uint8_t *copy = (uint8_t *)malloc(cap), *exact;
    if (!copy) abort();
    if (len) memcpy(copy, data + 1, len);
    if (data[0] & 1 && len >= STUN_HEADER) {
        len -= len % 4;
        copy[2] = (uint8_t)((len - STUN_HEADER) >> 8);
        copy[3] = (uint8_t)((len - STUN_HEADER) & 255);
    }
    if (data[0] & 2) {
        ptrdiff_t n = stun_add_fingerprint(copy, cap, len);
        if (n > 0) len = (size_t)n;
    }
    exact = (uint8_t *)malloc(len ? len : 1);
    if (!exact) abort();
    memcpy(exact, copy, len);
    free(copy);
    int err = stun_parse(&m, exact, len);
    HOLDS(err == 0 || err == NETIO_EPROTO || err == NETIO_EBADMSG || err == NETIO_ENOTSUP ||
          err == NETIO_EMSGSIZE);
    if (err == 0) look_into(&m, exact, len);
    if (err == 0) write_again(&m);
    answer(err == 0 ? &m : NULL, exact, len);
    free(exact);
    return 0;
}

#ifndef NETIO_LIBFUZZER
// clang-format off
#define HEAD(type, len) type "\0" len "\x21\x12\xa4\x42" "0123456789ab"
static const fuzz_seed seeds[] = {
    SEED("0" HEAD("\0\1", "\0")), SEED("3" HEAD("\0\1", "\0")),
    SEED("1" HEAD("\1\1", "\0") "\0\x20\0\x08\0\1\xa1\x47\xe1\x12\xa6\x43"),
    SEED("1" HEAD("\1\1", "\0") "\0\1\0\x14\0\2\xa1\x47" "abcdefghijklmnop"),
    SEED("3" HEAD("\0\1", "\0") "\0\x24\0\4n\0\1\xff\0\6\0\5user:\0\0\0"),
    SEED("1" HEAD("\1\x11", "\0") "\0\x09\0\7\0\0\4\x14" "why\0" "\0\x0a\0\4\0\x24\x70\1"),
    SEED("1" HEAD("\0\1", "\0") "\x80\x22\0\2ab\0\0\0\x08\0\x14" "12345678901234567890"
         "\0\x20\0\x08\0\1\xa1\x47\xe1\x12\xa6\x43"),
    SEED("1" HEAD("\1\1", "\0") "\0\x15\0\4nonc\0\x14\0\1r\0\0\0\x80\x28\0\4\1\2\3\4"),
};
// clang-format on
static const char alphabet[] = "\0\1\2\3\4\5\6\x08\x09\x0a\x11\x14\x20\x22\x28\x80\xff"
                               "abc0123";

FUZZ_MAIN(seeds, alphabet)
#endif // NETIO_LIBFUZZER
