// uring.c: the limit of the completion model, written by hand on liburing: one ring with
// SINGLE_ISSUER|DEFER_TASKRUN, multishot accept, multishot recv from a ring of provided buffers,
// sends queued and submitted together with the wait.
//
//   --direct      accepted sockets live in the ring's file table, without a descriptor
//   --hybrid      receive through the ring, send with send() at once
//   --oneshot     no multishot: a plain recv per message, its buffer chosen from the ring
//   --bundle      recv bundles (Linux 6.10): one completion may span several buffers
//   --nodefer     without SINGLE_ISSUER|DEFER_TASKRUN
//   --nobatch     submit every send by itself instead of with the next wait
//   --bufs N, --bufsize N   the ring of provided buffers
#include "common.h"
#include <liburing.h>

#ifndef IORING_RECVSEND_BUNDLE
#define IORING_RECVSEND_BUNDLE (1U << 4)
#endif

// What a completion belongs to travels in its user_data: operation, descriptor, buffer.
enum { ACCEPT, RECV, SEND, CLOSE };

#define TAG(op, fd, x) ((uint64_t)(op) << 60 | (uint64_t)(uint32_t)(fd) << 32 | (uint32_t)(x))

struct conn {
    int head, tail; // buffers that wait to be sent
    int sending, closing, recving, starved;
};

static struct conn conns[MAXFD];
static int *bnext, *blen, *bshare;
static int nbufs = 512, bufsize = 16384, lfd, f_direct, f_hybrid, f_oneshot, f_bundle, f_nobatch;
static char *bufs;
static struct io_uring ring;
static struct io_uring_buf_ring *br;
static int returned, *starved, nstarved, live[MAXFD], nlive, livepos[MAXFD];

static char *buf_at(int bid) { return bufs + (size_t)bid * (size_t)bufsize; }

static struct io_uring_sqe *sqe(void)
{
    struct io_uring_sqe *s = io_uring_get_sqe(&ring);
    if (!s) {
        io_uring_submit(&ring);
        s = io_uring_get_sqe(&ring);
    }
    return s;
}

static void give_back(int bid)
{
    if (bshare[bid] && --bshare[bid]) return;
    io_uring_buf_ring_add(br, buf_at(bid), (unsigned)bufsize, (unsigned short)bid,
                          io_uring_buf_ring_mask((unsigned)nbufs), returned++);
}

static void arm_accept(void)
{
    struct io_uring_sqe *s = sqe();
    if (f_direct) {
        io_uring_prep_multishot_accept_direct(s, lfd, NULL, NULL, 0);
    } else {
        io_uring_prep_multishot_accept(s, lfd, NULL, NULL, SOCK_CLOEXEC);
    }
    s->user_data = TAG(ACCEPT, 0, 0);
}

static void arm_recv(int fd)
{
    struct io_uring_sqe *s = sqe();
    if (f_oneshot) {
        io_uring_prep_recv(s, fd, NULL, 0, 0);
    } else {
        io_uring_prep_recv_multishot(s, fd, NULL, 0, 0);
    }
    if (f_bundle) s->ioprio |= IORING_RECVSEND_BUNDLE;
    s->flags |= IOSQE_BUFFER_SELECT | (f_direct ? IOSQE_FIXED_FILE : 0);
    s->buf_group = 0;
    s->user_data = TAG(RECV, fd, 0);
    conns[fd].recving = 1;
}

static void start_send(int fd, const char *p, int n, int bid)
{
    struct io_uring_sqe *s = sqe();
    io_uring_prep_send(s, fd, p, (size_t)n, MSG_WAITALL | MSG_NOSIGNAL);
    if (f_direct) s->flags |= IOSQE_FIXED_FILE;
    s->user_data = TAG(SEND, fd, bid);
    conns[fd].sending++;
    if (f_nobatch) io_uring_submit(&ring);
}

static void maybe_close(int fd)
{
    struct conn *c = &conns[fd];
    if (!c->closing || c->sending || c->recving) return;
    while (c->head >= 0) {
        int b = c->head;
        c->head = bnext[b];
        give_back(b);
    }
    if (g_mode == FAN) {
        int p = livepos[fd];
        live[p] = live[--nlive];
        livepos[live[p]] = p;
    }
    if (f_direct) {
        struct io_uring_sqe *s = sqe();
        io_uring_prep_close_direct(s, (unsigned)fd);
        s->flags |= IOSQE_CQE_SKIP_SUCCESS;
        s->user_data = TAG(CLOSE, fd, 0);
    } else {
        close(fd);
    }
}

static void queue_buf(int fd, int bid, int len)
{
    struct conn *c = &conns[fd];
    if (g_mode == SINK || c->closing) {
        give_back(bid);
        return;
    }
    if (f_hybrid && c->head < 0 && !c->sending) {
        ssize_t w = send(fd, buf_at(bid), (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (w == len || (w < 0 && errno != EAGAIN)) {
            give_back(bid);
            return;
        }
        if (w > 0) {
            memmove(buf_at(bid), buf_at(bid) + w, (size_t)(len - w));
            len -= (int)w;
        }
    }
    if (!c->sending) {
        start_send(fd, buf_at(bid), len, bid);
        return;
    }
    blen[bid] = len;
    bnext[bid] = -1;
    if (c->head < 0) {
        c->head = bid;
    } else {
        bnext[c->tail] = bid;
    }
    c->tail = bid;
}

static void on_recv(struct io_uring_cqe *cqe, int fd)
{
    struct conn *c = &conns[fd];
    int more = !!(cqe->flags & IORING_CQE_F_MORE);
    if (!more) c->recving = 0;
    if (cqe->res > 0) {
        int bid = (int)(cqe->flags >> IORING_CQE_BUFFER_SHIFT), left = cqe->res;
        if (g_mode == FAN) {
            bshare[bid] = 1;
            for (int i = 0; i < nlive; i++) {
                if (live[i] != fd && !conns[live[i]].closing) {
                    bshare[bid]++;
                    start_send(live[i], buf_at(bid), left, bid);
                }
            }
            give_back(bid);
        } else {
            while (left > 0) { // a bundle spans consecutive buffers
                int n = left < bufsize ? left : bufsize;
                queue_buf(fd, bid, n);
                left -= n;
                bid = (bid + 1) & (nbufs - 1);
            }
        }
        if (!more) arm_recv(fd);
    } else if (cqe->res == -ENOBUFS) {
        if (!c->starved) {
            c->starved = 1;
            starved[nstarved++] = fd;
        }
    } else if (!more) {
        c->closing = 1;
        maybe_close(fd);
    }
}

static void on_accept(const struct io_uring_cqe *cqe)
{
    int fd = cqe->res;
    if (!(cqe->flags & IORING_CQE_F_MORE)) arm_accept();
    if (fd < 0 || fd >= MAXFD) return;
    memset(&conns[fd], 0, sizeof conns[fd]);
    conns[fd].head = -1;
    if (g_mode == FAN) {
        livepos[fd] = nlive;
        live[nlive++] = fd;
    }
    if (g_mode == SOURCE) {
        start_send(fd, g_zeros, sizeof g_zeros, 0);
    } else {
        arm_recv(fd);
    }
}

static void on_sent(const struct io_uring_cqe *cqe, int fd)
{
    struct conn *c = &conns[fd];
    c->sending--;
    if (g_mode == SOURCE) {
        if (cqe->res > 0) {
            start_send(fd, g_zeros, sizeof g_zeros, 0);
        } else {
            c->closing = 1;
            maybe_close(fd);
        }
        return;
    }
    give_back((int)(uint32_t)cqe->user_data);
    if (c->closing) {
        maybe_close(fd);
    } else if (c->head >= 0 && !c->sending) {
        int b = c->head;
        c->head = bnext[b];
        start_send(fd, buf_at(b), blen[b], b);
    }
}

// Buffers that were given back become the kernel's; connections that found none may ask again.
static void end_of_turn(void)
{
    if (!returned) return;
    io_uring_buf_ring_advance(br, returned);
    returned = 0;
    for (int i = 0; i < nstarved; i++) {
        conns[starved[i]].starved = 0;
        if (!conns[starved[i]].closing) arm_recv(starved[i]);
    }
    nstarved = 0;
}

static void fail(const char *what)
{
    fprintf(stderr, "uring: no %s\n", what);
    exit(1);
}

static void open_ring(void)
{
    struct io_uring_params p;
    struct io_uring_buf_reg reg;
    memset(&p, 0, sizeof p);
    p.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL;
    if (!flag("--nodefer")) p.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    p.cq_entries = 8192;
    if (io_uring_queue_init_params(2048, &ring, &p) < 0) fail("io_uring");
    io_uring_register_ring_fd(&ring);
    if (f_direct && io_uring_register_files_sparse(&ring, MAXFD) < 0) fail("sparse files");

    bnext = calloc((size_t)nbufs, sizeof *bnext);
    blen = calloc((size_t)nbufs, sizeof *blen);
    bshare = calloc((size_t)nbufs, sizeof *bshare);
    starved = calloc(MAXFD, sizeof *starved);
    bufs = aligned_alloc(4096, (size_t)nbufs * (size_t)bufsize);
    br = aligned_alloc(4096, (size_t)nbufs * sizeof(struct io_uring_buf));
    memset(&reg, 0, sizeof reg);
    reg.ring_addr = (uint64_t)(uintptr_t)br;
    reg.ring_entries = (uint32_t)nbufs;
    if (io_uring_register_buf_ring(&ring, &reg, 0) < 0) fail("buffer ring");
    io_uring_buf_ring_init(br);
    for (int i = 0; i < nbufs; i++) {
        give_back(i);
    }
    end_of_turn();
}

int main(int argc, char **argv)
{
    start(argc, argv);
    f_direct = flag("--direct");
    f_hybrid = flag("--hybrid");
    f_oneshot = flag("--oneshot");
    f_bundle = flag("--bundle");
    f_nobatch = flag("--nobatch");
    nbufs = atoi(option("--bufs", "512"));
    bufsize = atoi(option("--bufsize", "16384"));
    open_ring();
    lfd = listen_tcp();
    fcntl(lfd, F_SETFL, 0);
    arm_accept();
    for (;;) {
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        io_uring_submit_and_wait(&ring, 1);
        // clang-format off
        io_uring_for_each_cqe(&ring, head, cqe) {
            // clang-format on
            int fd = (int)(cqe->user_data >> 32 & 0xfffffff);
            seen++;
            switch (cqe->user_data >> 60) {
            case ACCEPT: on_accept(cqe); break;
            case RECV: on_recv(cqe, fd); break;
            case SEND: on_sent(cqe, fd); break;
            default: break;
            }
        }
        io_uring_cq_advance(&ring, seen);
        end_of_turn();
    }
}
