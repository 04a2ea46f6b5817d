// stun.h: STUN Binding (RFC 8489): ask a server in the Internet under which address it sees you.
//
// Messages as bytes, no sockets: a client builds a request with a transaction id of its own, sends
// it again as stun_retry says, and takes the answer that has this id; a server answers with the
// address that the request came from. What comes from the network is checked whole before anything
// of it is believed.
//
//     uint8_t id[STUN_ID], request[64];     // id: random bytes
//     ptrdiff_t len = stun_write(request, sizeof request, STUN_REQUEST, id);
//     len = stun_add_fingerprint(request, sizeof request, (size_t)len);
//     ...
//     if (stun_parse(&m, got, got_len) == 0 && m.type == STUN_SUCCESS && stun_is(&m, id) &&
//         m.unknown_count == 0 && m.mapped.len) { m.mapped is our address }
//
// Any thread, no heap, no state. HMAC-SHA1 for short-term credentials is at hand; a request is safe
// from forgery only with them, and otherwise by its random id from those who cannot see it.
// See RFC 8489; RFC 5769 (examples); RFC 8445 section 16.1 for what ICE adds
#ifndef STUN_H
#define STUN_H

#include "../../netio.h"

#include <string.h>

enum { STUN_HEADER = 20, STUN_ID = 12, STUN_MAX = 1280 }; // larger messages are not taken or made
enum { STUN_UNKNOWN_MAX = 16 };                           // of attributes that are told

// Types of messages: Binding is the only method.
enum { STUN_REQUEST = 0x001, STUN_INDICATION = 0x011, STUN_SUCCESS = 0x101, STUN_ERROR = 0x111 };

// Attributes. Those below 0x8000 must be understood by who gets them.
enum {
    STUN_MAPPED_ADDRESS = 0x0001,
    STUN_USERNAME = 0x0006,
    STUN_MESSAGE_INTEGRITY = 0x0008,
    STUN_ERROR_CODE = 0x0009,
    STUN_UNKNOWN_ATTRIBUTES = 0x000A,
    STUN_REALM = 0x0014,
    STUN_NONCE = 0x0015,
    STUN_XOR_MAPPED_ADDRESS = 0x0020,
    STUN_SOFTWARE = 0x8022,
    STUN_FINGERPRINT = 0x8028
};

// A message that was checked; its pieces point into the bytes.
typedef struct stun_message {
    int type; // STUN_REQUEST...
    uint8_t id[STUN_ID];
    netio_addr mapped;                    // XOR-MAPPED-ADDRESS, else MAPPED-ADDRESS; zero: none
    int error;                            // ERROR-CODE: 300..699; 0: none
    netio_buf reason, software, username; // data NULL: none
    uint16_t refused[STUN_UNKNOWN_MAX];   // UNKNOWN-ATTRIBUTES: the server did not understand
    size_t refused_count;                 // these
    uint16_t unknown[STUN_UNKNOWN_MAX];   // that must be understood and are not, the first of
    size_t unknown_count;                 // them: answer a request with 420, drop an answer
    size_t integrity;                     // where MESSAGE-INTEGRITY begins; 0: there is none
    bool fingerprint;                     // it had one, and it was right
    const uint8_t *data;
    size_t len;
} stun_message;

// Check and read a whole datagram. The first of several equal attributes counts; behind
// MESSAGE-INTEGRITY only FINGERPRINT does.
//
// Returns  0; NETIO_EPROTO (no STUN message, or one that is not whole to the byte: lengths, padding
//          past the end, an attribute that is too short, FINGERPRINT not last); NETIO_EBADMSG (the
//          FINGERPRINT is wrong); NETIO_ENOTSUP (STUN, but another method); NETIO_EMSGSIZE (above
//          STUN_MAX). On error *out is not to be used.
static inline int stun_parse(stun_message *out, const void *data, size_t len);

// Whether bytes can be STUN at all, for sockets that carry something else, too (RFC 7983).
static inline bool stun_looks_like(const void *data, size_t len);

// Whether it has this transaction id: an answer with another one belongs to nobody.
static inline bool stun_is(const stun_message *m, const uint8_t id[STUN_ID]);

// Whether MESSAGE-INTEGRITY is right: the message is from somebody who has the key. A short-term
// key is the password; a long-term one the MD5 sum of "user:realm:password". false: or there is
// none. Takes the same time wherever it differs.
static inline bool stun_check_integrity(const stun_message *m, const void *key, size_t key_len);

// Write a header, then add attributes: each call gives the new length, to be passed to the next.
// Integrity comes next to last, the fingerprint last.
// Returns the length; NETIO_ENOSPC; NETIO_EMSGSIZE (above STUN_MAX); NETIO_EINVAL (not an IP
// address; an error code below 300 or above 699; a text over 763 bytes; more than
// STUN_UNKNOWN_MAX attributes; something behind the fingerprint; what is in `buf` is no message).
static inline ptrdiff_t stun_write(void *buf, size_t cap, int type, const uint8_t id[STUN_ID]);
static inline ptrdiff_t stun_add(void *buf, size_t cap, size_t len, int attribute,
                                 const void *value, size_t value_len);
static inline ptrdiff_t stun_add_text(void *buf, size_t cap, size_t len, int attribute,
                                      const char *text); // SOFTWARE, USERNAME
static inline ptrdiff_t stun_add_mapped(void *buf, size_t cap, size_t len, const netio_addr *a);
static inline ptrdiff_t stun_add_xor_mapped(void *buf, size_t cap, size_t len, const netio_addr *a);
static inline ptrdiff_t stun_add_error(void *buf, size_t cap, size_t len, int code,
                                       const char *reason);
static inline ptrdiff_t stun_add_unknown(void *buf, size_t cap, size_t len,
                                         const uint16_t *attributes, size_t count);
static inline ptrdiff_t stun_add_integrity(void *buf, size_t cap, size_t len, const void *key,
                                           size_t key_len);
static inline ptrdiff_t stun_add_fingerprint(void *buf, size_t cap, size_t len);

// What a server says to a datagram from `from`: the address, or 420 to attributes that it does not
// know; with a fingerprint if the request had one. `software` NULL: not told. It never gives more
// than 100 + strlen(software) bytes, and nothing to what is no request, so it makes no small attack
// a large one.
// Returns the length; 0: no answer is due; NETIO_ENOSPC, NETIO_EMSGSIZE, NETIO_EINVAL.
static inline ptrdiff_t stun_answer(void *buf, size_t cap, const void *request, size_t len,
                                    const netio_addr *from, const char *software);

// When to send a request over UDP: at 0 ms, then with doubling pauses, `tries` (Rc) times in all;
// after the last one an answer is waited for another `last` (Rm) times the first pause. Zero fields
// are the RFC's 500 ms, 7 and 16: sent at 0, 500, 1500, 3500, 7500, 15500, 31500, failed at 39500.
// Over TCP it is sent once, and 39.5 s waited.
// Returns the ms from the first send to send number `n` (0: the first), or with n = tries to the
// time when it has failed; -1: n is larger or below 0, or the time is beyond 24 days.
// See RFC 8489 section 6.2.1
typedef struct stun_schedule {
    int rto_ms, tries, last;
} stun_schedule;

static inline int stun_retry(const stun_schedule *s, int n);

// HMAC-SHA1 (RFC 2104) over pieces of at most STUN_MAX bytes in all; what goes beyond is left out.
static inline void stun_hmac(uint8_t out[20], const void *key, size_t key_len,
                             const netio_buf *bufs, size_t count);

//================================================================================================
// Sums
//================================================================================================

static const uint8_t stun__cookie[4] = {0x21, 0x12, 0xA4, 0x42};

static inline void stun_hmac(uint8_t out[20], const void *key, size_t key_len,
                             const netio_buf *bufs, size_t count)
{
    uint8_t block[64 + STUN_MAX] = {0}, outer[64 + 20];
    size_t at = 64;
    if (key_len > 64) netio_sha1(block, key, key_len);
    else if (key_len > 0) memcpy(block, key, key_len);
    for (int i = 0; i < 64; i++) outer[i] = block[i] ^ 0x5C;
    for (int i = 0; i < 64; i++) block[i] ^= 0x36;
    for (size_t i = 0; i < count && bufs[i].len <= sizeof block - at; at += bufs[i++].len)
        if (bufs[i].len > 0) memcpy(block + at, bufs[i].data, bufs[i].len);
    netio_sha1(outer + 64, block, at);
    netio_sha1(out, outer, sizeof outer);
}

// Both sums are made as if the message ended right behind their attribute, so the length in the
// header is replaced by `counted`.
static inline void stun__header(uint8_t out[STUN_HEADER], const uint8_t *data, size_t counted)
{
    memcpy(out, data, STUN_HEADER);
    out[2] = (uint8_t)(counted >> 8);
    out[3] = (uint8_t)(counted & 255);
}

static inline void stun__integrity(uint8_t out[20], const uint8_t *data, size_t at, const void *key,
                                   size_t key_len)
{
    uint8_t header[STUN_HEADER];
    netio_buf bufs[2];
    stun__header(header, data, at - STUN_HEADER + 24);
    bufs[0].data = header;
    bufs[0].len = STUN_HEADER;
    bufs[1].data = data + STUN_HEADER;
    bufs[1].len = at - STUN_HEADER;
    stun_hmac(out, key, key_len, bufs, 2);
}

static inline uint32_t stun__fingerprint(const uint8_t *data, size_t at)
{
    uint8_t header[STUN_HEADER];
    stun__header(header, data, at - STUN_HEADER + 8);
    uint32_t crc = netio_crc32(0, header, STUN_HEADER);
    return netio_crc32(crc, data + STUN_HEADER, at - STUN_HEADER) ^ 0x5354554Eu; // "STUN"
}

//================================================================================================
// Reading
//================================================================================================

static inline unsigned stun__u16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }

static inline bool stun_looks_like(const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    return len >= STUN_HEADER && p[0] < 0x40 && len % 4 == 0 && memcmp(p + 4, stun__cookie, 4) == 0;
}

static inline bool stun_is(const stun_message *m, const uint8_t id[STUN_ID])
{
    return memcmp(m->id, id, STUN_ID) == 0;
}

// The address, made readable with the bytes of the header from the cookie on: both, or only zeros.
static inline int stun__address(netio_addr *out, const uint8_t *value, size_t len,
                                const uint8_t mask[16])
{
    uint8_t ip[16];
    if (len < 4) return NETIO_EPROTO;
    size_t ip_len = value[1] == 1 ? 4 : value[1] == 2 ? 16 : 0;
    if (ip_len == 0 || len != 4 + ip_len) return NETIO_EPROTO;
    for (size_t i = 0; i < ip_len; i++) ip[i] = value[4 + i] ^ mask[i];
    unsigned port = stun__u16(value + 2) ^ stun__u16(mask);
    return netio_addr_from_ip(out, ip, ip_len, (uint16_t)port);
}

static inline int stun__error(stun_message *m, const uint8_t *value, size_t len)
{
    if (len < 4) return NETIO_EPROTO;
    int hundreds = value[2] & 7, number = value[3];
    if (hundreds < 3 || hundreds > 6 || number > 99) return NETIO_EPROTO;
    m->error = hundreds * 100 + number;
    m->reason.data = value + 4;
    m->reason.len = len - 4;
    return 0;
}

// What has been seen of a message.
typedef struct stun__seen {
    netio_addr plain; // MAPPED-ADDRESS
    bool error, refused;
} stun__seen;

static inline int stun__attribute(stun_message *m, stun__seen *seen, unsigned type,
                                  const uint8_t *value, size_t len)
{
    static const uint8_t zeros[16];
    netio_buf *text = type == STUN_SOFTWARE   ? &m->software
                      : type == STUN_USERNAME ? &m->username
                                              : NULL;
    switch (type) {
    case STUN_XOR_MAPPED_ADDRESS:
        return m->mapped.len ? 0 : stun__address(&m->mapped, value, len, m->data + 4);
    case STUN_MAPPED_ADDRESS:
        return seen->plain.len ? 0 : stun__address(&seen->plain, value, len, zeros);
    case STUN_ERROR_CODE: return m->error ? 0 : stun__error(m, value, len);
    case STUN_UNKNOWN_ATTRIBUTES:
        if (len % 2) return NETIO_EPROTO;
        for (size_t i = 0; i < len && !seen->refused && i / 2 < STUN_UNKNOWN_MAX; i += 2)
            m->refused[m->refused_count++] = (uint16_t)stun__u16(value + i);
        seen->refused = true;
        return 0;
    case STUN_SOFTWARE:
    case STUN_USERNAME:
        if (text->data) return 0;
        text->data = value;
        text->len = len;
        return 0;
    case STUN_MESSAGE_INTEGRITY:
        if (len != 20) return NETIO_EPROTO;
        m->integrity = (size_t)(value - 4 - m->data);
        return 0;
    case STUN_REALM:
    case STUN_NONCE: return 0; // long-term credentials: known, and not used
    default:
        if (type < 0x8000 && m->unknown_count < STUN_UNKNOWN_MAX)
            m->unknown[m->unknown_count++] = (uint16_t)type;
        return 0;
    }
}

static inline int stun_parse(stun_message *out, const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    stun__seen seen;
    memset(out, 0, sizeof *out);
    memset(&seen, 0, sizeof seen);
    if (!stun_looks_like(data, len) || stun__u16(p + 2) != len - STUN_HEADER) return NETIO_EPROTO;
    if (len > STUN_MAX) return NETIO_EMSGSIZE;
    if ((stun__u16(p) & 0x3EEF) != 1) return NETIO_ENOTSUP; // the method's bits
    out->type = (int)stun__u16(p);
    memcpy(out->id, p + 8, STUN_ID);
    out->data = p;
    out->len = len;
    for (size_t at = STUN_HEADER, next; at < len; at = next) {
        if (len - at < 4 || out->fingerprint) return NETIO_EPROTO;
        unsigned type = stun__u16(p + at);
        size_t size = stun__u16(p + at + 2);
        next = at + 4 + ((size + 3) & ~(size_t)3);
        if (next > len) return NETIO_EPROTO;
        if (type == STUN_FINGERPRINT) {
            uint32_t sum = stun__fingerprint(p, at);
            if (size != 4) return NETIO_EPROTO;
            if ((sum >> 16) != stun__u16(p + at + 4) || (sum & 0xFFFF) != stun__u16(p + at + 6))
                return NETIO_EBADMSG;
            out->fingerprint = true;
        } else if (!out->integrity) {
            int err = stun__attribute(out, &seen, type, p + at + 4, size);
            if (err < 0) return err;
        }
    }
    if (!out->mapped.len) out->mapped = seen.plain;
    return 0;
}

static inline bool stun_check_integrity(const stun_message *m, const void *key, size_t key_len)
{
    uint8_t sum[20], differs = 0;
    if (!m->integrity) return false;
    stun__integrity(sum, m->data, m->integrity, key, key_len);
    for (int i = 0; i < 20; i++)
        differs |= (uint8_t)(sum[i] ^ m->data[m->integrity + 4 + (size_t)i]);
    return differs == 0;
}

//================================================================================================
// Writing
//================================================================================================

static inline ptrdiff_t stun_write(void *buf, size_t cap, int type, const uint8_t id[STUN_ID])
{
    uint8_t *p = (uint8_t *)buf;
    if (type < 0 || (type & ~0x0110) != 1) return NETIO_EINVAL;
    if (cap < STUN_HEADER) return NETIO_ENOSPC;
    p[0] = (uint8_t)(type >> 8);
    p[1] = (uint8_t)(type & 255);
    p[2] = p[3] = 0;
    memcpy(p + 4, stun__cookie, 4);
    memcpy(p + 8, id, STUN_ID);
    return STUN_HEADER;
}

// Whether the last attribute is a fingerprint: nothing comes behind that.
static inline bool stun__is_closed(const uint8_t *p, size_t len)
{
    size_t at = STUN_HEADER;
    while (at + 8 < len) at += 4 + ((stun__u16(p + at + 2) + 3u) & ~3u);
    return at + 8 == len && stun__u16(p + at) == STUN_FINGERPRINT;
}

static inline ptrdiff_t stun_add(void *buf, size_t cap, size_t len, int attribute,
                                 const void *value, size_t value_len)
{
    uint8_t *p = (uint8_t *)buf;
    size_t padded = (value_len + 3) & ~(size_t)3;
    if (len < STUN_HEADER || len > cap || len > STUN_MAX || attribute < 0 || attribute > 0xFFFF)
        return NETIO_EINVAL;
    if (!stun_looks_like(p, len) || stun__u16(p + 2) != len - STUN_HEADER ||
        stun__is_closed(p, len))
        return NETIO_EINVAL;
    if (value_len > STUN_MAX || padded + 4 > STUN_MAX - len) return NETIO_EMSGSIZE;
    if (padded + 4 > cap - len) return NETIO_ENOSPC;
    p[len] = (uint8_t)(attribute >> 8);
    p[len + 1] = (uint8_t)(attribute & 255);
    p[len + 2] = (uint8_t)(value_len >> 8);
    p[len + 3] = (uint8_t)(value_len & 255);
    memset(p + len + 4, 0, padded);
    if (value_len > 0) memcpy(p + len + 4, value, value_len);
    len += 4 + padded;
    p[2] = (uint8_t)((len - STUN_HEADER) >> 8);
    p[3] = (uint8_t)((len - STUN_HEADER) & 255);
    return (ptrdiff_t)len;
}

static inline ptrdiff_t stun_add_text(void *buf, size_t cap, size_t len, int attribute,
                                      const char *text)
{
    size_t text_len = strlen(text);
    return text_len > 763 ? (ptrdiff_t)NETIO_EINVAL
                          : stun_add(buf, cap, len, attribute, text, text_len);
}

static inline ptrdiff_t stun__add_address(void *buf, size_t cap, size_t len, int attribute,
                                          const netio_addr *a, const uint8_t mask[16])
{
    uint8_t value[20] = {0};
    netio_buf ip = netio_addr_ip(a);
    unsigned port = netio_addr_port(a) ^ stun__u16(mask);
    if (ip.len == 0) return NETIO_EINVAL;
    value[1] = ip.len == 4 ? 1 : 2;
    value[2] = (uint8_t)(port >> 8);
    value[3] = (uint8_t)(port & 255);
    for (size_t i = 0; i < ip.len; i++) value[4 + i] = ((const uint8_t *)ip.data)[i] ^ mask[i];
    return stun_add(buf, cap, len, attribute, value, 4 + ip.len);
}

static inline ptrdiff_t stun_add_mapped(void *buf, size_t cap, size_t len, const netio_addr *a)
{
    static const uint8_t zeros[16];
    return stun__add_address(buf, cap, len, STUN_MAPPED_ADDRESS, a, zeros);
}

static inline ptrdiff_t stun_add_xor_mapped(void *buf, size_t cap, size_t len, const netio_addr *a)
{
    uint8_t mask[16]; // copied, as the compiler cannot know that `buf` is long enough
    if (len < STUN_HEADER || cap < STUN_HEADER) return NETIO_EINVAL;
    memcpy(mask, (const uint8_t *)buf + 4, sizeof mask);
    return stun__add_address(buf, cap, len, STUN_XOR_MAPPED_ADDRESS, a, mask);
}

static inline ptrdiff_t stun_add_error(void *buf, size_t cap, size_t len, int code,
                                       const char *reason)
{
    uint8_t value[4 + 763] = {0};
    size_t reason_len = strlen(reason);
    if (code < 300 || code > 699 || reason_len > 763) return NETIO_EINVAL;
    value[2] = (uint8_t)(code / 100);
    value[3] = (uint8_t)(code % 100);
    memcpy(value + 4, reason, reason_len);
    return stun_add(buf, cap, len, STUN_ERROR_CODE, value, 4 + reason_len);
}

static inline ptrdiff_t stun_add_unknown(void *buf, size_t cap, size_t len,
                                         const uint16_t *attributes, size_t count)
{
    uint8_t value[2 * STUN_UNKNOWN_MAX];
    if (count > STUN_UNKNOWN_MAX) return NETIO_EINVAL;
    for (size_t i = 0; i < count; i++) {
        value[2 * i] = (uint8_t)(attributes[i] >> 8);
        value[2 * i + 1] = (uint8_t)(attributes[i] & 255);
    }
    return stun_add(buf, cap, len, STUN_UNKNOWN_ATTRIBUTES, value, 2 * count);
}

static inline ptrdiff_t stun_add_integrity(void *buf, size_t cap, size_t len, const void *key,
                                           size_t key_len)
{
    uint8_t sum[20] = {0};
    ptrdiff_t n = stun_add(buf, cap, len, STUN_MESSAGE_INTEGRITY, sum, sizeof sum);
    if (n < 0) return n;
    stun__integrity(sum, (const uint8_t *)buf, len, key, key_len);
    memcpy((uint8_t *)buf + len + 4, sum, sizeof sum);
    return n;
}

static inline ptrdiff_t stun_add_fingerprint(void *buf, size_t cap, size_t len)
{
    uint8_t *p = (uint8_t *)buf, value[4] = {0};
    ptrdiff_t n = stun_add(buf, cap, len, STUN_FINGERPRINT, value, sizeof value);
    if (n < 0) return n;
    uint32_t sum = stun__fingerprint(p, len);
    for (int i = 0; i < 4; i++) p[len + 4 + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
    return n;
}

static inline ptrdiff_t stun_answer(void *buf, size_t cap, const void *request, size_t len,
                                    const netio_addr *from, const char *software)
{
    stun_message m;
    if (stun_parse(&m, request, len) < 0 || m.type != STUN_REQUEST) return 0;
    ptrdiff_t n = stun_write(buf, cap, m.unknown_count ? STUN_ERROR : STUN_SUCCESS, m.id);
    if (m.unknown_count) {
        if (n > 0) n = stun_add_error(buf, cap, (size_t)n, 420, "Unknown Attribute");
        if (n > 0) n = stun_add_unknown(buf, cap, (size_t)n, m.unknown, m.unknown_count);
    } else if (n > 0) {
        n = stun_add_xor_mapped(buf, cap, (size_t)n, from);
    }
    if (n > 0 && software) n = stun_add_text(buf, cap, (size_t)n, STUN_SOFTWARE, software);
    if (n > 0 && m.fingerprint) n = stun_add_fingerprint(buf, cap, (size_t)n);
    return n;
}

static inline int stun_retry(const stun_schedule *s, int n)
{
    int rto_ms = s->rto_ms ? s->rto_ms : 500, tries = s->tries ? s->tries : 7;
    int64_t last = s->last ? s->last : 16, at = 0;
    if (rto_ms < 0 || tries < 0 || tries > 30 || last < 0 || n < 0 || n > tries) return -1;
    for (int i = 0; i < n && i + 1 < tries; i++) at += (int64_t)rto_ms << i;
    if (n == tries) at += last * rto_ms;
    return at <= INT32_MAX ? (int)at : -1;
}
#endif // STUN_H
