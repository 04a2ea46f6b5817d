// Channels (examples/common/channels.h) on any bytes, cut anywhere: every cut tells the same story
// as the whole, what is held stays within the windows, a broken rule is the end for good, and what
// is said in answer is well-formed. See fuzz.h.
//
// The first byte picks the mode and who dialed, the second how eagerly the user reads, ends and
// closes; the rest is the stream.
#include "fuzz.h"

#include "../../examples/common/channels.h"

enum { WINDOW = 100, MOST = 6 };

// What came of a stream: a running sum over all that was told and said, and the end of it.
typedef struct story {
    uint32_t sum;
    int err;
    size_t events, said;
} story;

typedef struct user {
    channels *m;
    netio_framing framing;
    story s;
    uint32_t whim;
} user;

static void add(user *u, const void *data, size_t len)
{
    u->s.sum = netio_crc32(u->s.sum, data, len);
}

static int emit(void *arg, const netio_frame *frame)
{
    user *u = (user *)arg;
    netio_envelope env;
    HOLDS(netio_encode(&env, &u->framing, frame) == 0);
    HOLDS(frame->len <= 7 + CHANNELS_LABEL_MAX || u->framing.format == NETIO_FORMAT_LINE);
    add(u, env.head, env.head_len);
    add(u, frame->data, frame->len);
    u->s.said++;
    return 0;
}

// The rules about what is held, of every channel; private, but memory is what this is about.
static void check_levels(const user *u)
{
    const channels *m = u->m;
    size_t count = 0;
    for (size_t i = 0; i < CHANNELS__BUCKETS; i++) {
        for (const channels__one *ch = m->table[i]; ch; ch = ch->next, count++) {
            size_t held = 0, blocks = 0;
            for (const channels__block *b = ch->first; b; b = b->next, blocks++) {
                HOLDS(b->off <= b->len && b->len <= b->cap);
                held += b->len - b->off;
            }
            HOLDS(blocks == ch->blocks);
            if (m->opts.mode != CHANNELS_CREDIT) HOLDS(blocks <= CHANNELS_QUEUE);
            else if (m->err == 0) HOLDS(held + ch->room + ch->owed <= WINDOW);
            HOLDS(ch->credit <= CHANNELS_CREDIT_MAX);
            HOLDS(!ch->end_sent || ch->accepted);
        }
    }
    HOLDS(count == m->stats.open && count <= MOST);
}

static void read_some(user *u, uint16_t id, size_t most)
{
    netio_buf piece;
    while (most > 0 && (piece = channels_front(u->m, id)).data) {
        size_t n = piece.len < most ? piece.len : most;
        add(u, piece.data, n);
        int err = channels_drop(u->m, id, n);
        HOLDS(err == 0);
        most -= n ? n : 1;
    }
}

// A user whose whims depend on what was told so far, and so not on the cuts.
static void react(user *u, const channels_event *e)
{
    uint32_t whim = fuzz_random(&u->whim);
    uint16_t id = e->id;
    switch (e->type) {
    case CHANNELS_OPEN:
        HOLDS(e->label.len <= CHANNELS_LABEL_MAX);
        add(u, e->label.data, e->label.len);
        if (whim % 4 == 0) HOLDS(channels_close(u->m, id, NETIO_EACCES) == 0);
        else if (whim % 4 < 3) HOLDS(channels_accept(u->m, id) == 0);
        break;
    case CHANNELS_DATA: read_some(u, id, whim % 200); break;
    case CHANNELS_CLOSED: HOLDS(e->err < 0 && !channels_front(u->m, id).data); break;
    default: break;
    }
    if (u->m->opts.mode == CHANNELS_CREDIT) {
        id = (uint16_t)(whim >> 8 & 7);
        ptrdiff_t n = channels_send(u->m, id, "some bytes to send", whim >> 16 & 15);
        HOLDS(n >= 0 || n == NETIO_ENOENT || n == NETIO_ENOBUFS || n == NETIO_EPIPE);
        if (whim >> 20 & 1) read_some(u, id, 50);
        if ((whim >> 21 & 7) == 0) channels_end(u->m, id);
        if ((whim >> 24 & 15) == 0) channels_close(u->m, id, whim >> 28 & 1 ? NETIO_EPIPE : 0);
        HOLDS(u->m->err == 0); // none of that can break anything
    }
}

static int take(user *u, netio_decoder *d)
{
    netio_frame frame;
    int r;
    while ((r = netio_decoder_next(d, &frame)) > 0) {
        channels_event e;
        uint8_t said[4];
        memset(&e, 0, sizeof e);
        int err = channels_input(u->m, &frame, &e);
        if (err == NETIO_ENOBUFS && u->m->opts.mode != CHANNELS_CREDIT) continue;
        check_levels(u);
        if (err < 0) {
            HOLDS(err == NETIO_EPROTO && *channels_why(u->m));
            HOLDS(channels_input(u->m, &frame, &e) == err && channels_keep(u->m) == err);
            return err;
        }
        said[0] = (uint8_t)e.type;
        said[1] = (uint8_t)e.id;
        said[2] = (uint8_t)e.err;
        said[3] = (uint8_t)e.len;
        add(u, said, sizeof said);
        u->s.events++;
        react(u, &e);
        HOLDS(channels_keep(u->m) == 0);
        check_levels(u);
    }
    return r;
}

// `seed` 0: all at once; else in pieces of random sizes, each gone when the next one comes.
static story run(uint8_t pick, uint8_t whim, const uint8_t *data, size_t len, uint32_t seed)
{
    user u;
    channels_opts opts;
    netio_decoder d;
    uint16_t id;
    memset(&u, 0, sizeof u);
    memset(&opts, 0, sizeof opts);
    opts.mode = pick % 4 < 2 ? CHANNELS_CREDIT : pick % 4 == 2 ? CHANNELS_BARE : CHANNELS_TEXT;
    opts.dialed = pick % 2 == 1;
    opts.window = WINDOW;
    opts.max = MOST;
    opts.emit = emit;
    opts.user = &u;
    u.framing = channels_framing(opts.mode);
    u.whim = whim * 2654435761u + 1;
    HOLDS(channels_create(&u.m, &opts) == 0);
    HOLDS(netio_decoder_init(&d, u.framing, NULL, 0) == 0);
    if (opts.mode == CHANNELS_CREDIT) HOLDS(channels_open(u.m, &id, "us", 2, NULL) == 0);
    else
        for (id = 0; id < 3; id++) HOLDS(channels_add(u.m, id, NULL) == 0);
    for (size_t at = 0, n; at < len && u.s.err == 0; at += n) {
        n = seed ? 1 + fuzz_random(&seed) % (seed % 3 == 0 ? 2 : 30) : len;
        if (n > len - at) n = len - at;
        uint8_t *piece = (uint8_t *)malloc(n);
        if (!piece) abort();
        memcpy(piece, data + at, n);
        HOLDS(netio_decoder_feed(&d, piece, n) == 0);
        u.s.err = take(&u, &d);
        free(piece);
    }
    channels_destroy(u.m);
    netio_decoder_free(&d);
    return u.s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    story whole = run(data[0], data[1], data + 2, size - 2, 0);
    for (uint32_t seed = 1; seed <= 3; seed++) {
        story cut = run(data[0], data[1], data + 2, size - 2, seed * 2654435761u);
        HOLDS(cut.sum == whole.sum && cut.err == whole.err);
        HOLDS(cut.events == whole.events && cut.said == whole.said);
    }
    return 0;
}

#ifndef NETIO_LIBFUZZER
// clang-format off
static const fuzz_seed seeds[] = {
    SEED("0a\0\0\0\7\1\0\1\0\0\0\100\0\1\0\5hello\0\0\0\3\4\0\1\0\0\0\5\5\0\1\0\63"),
    SEED("0b\0\0\0\12\1\0\1\0\0\0\100web\0\0\0\7\1\0\3\0\0\1\0\0\3\0\2hi"
         "\0\1\0\1x\0\0\0\7\3\0\1\0\0\0\5"),
    SEED("0c\0\0\0\7\2\0\2\0\0\0\100\0\2\0\5hello\0\0\0\3\4\0\2\0\0\0\5\5\0\2\0\0"),
    SEED("1d\0\0\0\7\2\0\1\0\0\0\20\0\1\0\3abc\0\0\0\7\3\0\1\0\0\0\40\0\0\0\5\5\0\1\0\62"),
    SEED("1e\0\0\0\7\1\0\2\0\0\0\20\0\0\0\7\1\0\4\0\0\0\20"
         "\0\0\0\7\1\0\6\0\0\0\20\0\0\0\7\1\0\10\0\0\0\20"
         "\0\0\0\7\1\0\12\0\0\0\20\0\0\0\7\1\0\14\0\0\0\20\0\0\0\5\5\0\14\0\43"),
    SEED("0f\0\0\0\1\6\0\0\0\1\7\0\0\0\5\5\0\2\0\50"),
    SEED("0g\0\0\0\7\1\0\1\0\0\0\100\0\1\0\62" "01234567890123456789012345678901234567890123456789"
         "\0\1\0\62" "01234567890123456789012345678901234567890123456789\0\1\0\1x"),
    SEED("2h\0\1\0\5hello\0\2\0\0\0\11\0\1x\0\1\0\1a\0\1\0\1b\0\1\0\1c\0\1\0\1d\0\1\0\1e\0\1\0\1f"),
    SEED("3i0:hello\n1:a:b\nno\n:\n99999:x\n2:\r\n9:nobody\n1:x\n1:y\n1:z\n"),
};
// clang-format on
static const char alphabet[] = "\0\0\0\0\1\2\3\4\5\6\7\10\12\20\62\63\100\377ab019:\n";

FUZZ_MAIN(seeds, alphabet)
#endif // NETIO_LIBFUZZER
