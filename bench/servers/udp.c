// udp.c: UDP echo with recvfrom and sendto, one by one.
//
//   --mmsg    recvmmsg and sendmmsg, up to 64 a call
//   --epoll   wait in epoll first, as a loop does
#include "common.h"
#include <sys/epoll.h>

enum { B = 64 };

static char buf[B][2048];
static struct sockaddr_in from[B];
static struct mmsghdr m[B];
static struct iovec v[B];

static void echo_batch(int fd)
{
    for (int i = 0; i < B; i++) {
        v[i].iov_len = sizeof buf[i];
        m[i].msg_hdr.msg_namelen = sizeof from[i];
    }
    int n = recvmmsg(fd, m, B, MSG_WAITFORONE, NULL);
    for (int i = 0; i < n; i++) {
        v[i].iov_len = m[i].msg_len;
    }
    if (n > 0) sendmmsg(fd, m, (unsigned)n, 0);
}

static void echo_single(int fd, int at_most)
{
    struct sockaddr *peer = (struct sockaddr *)&from[0];
    for (int i = 0; i < at_most; i++) {
        socklen_t peer_len = sizeof from[0];
        ssize_t n = recvfrom(fd, buf[0], sizeof buf[0], 0, peer, &peer_len);
        if (n < 0) break;
        sendto(fd, buf[0], (size_t)n, 0, peer, peer_len);
    }
}

int main(int argc, char **argv)
{
    struct epoll_event e = {.events = EPOLLIN};
    start(argc, argv);
    int ep = -1, fd = bind_udp(flag("--epoll")), batches = flag("--mmsg");
    if (flag("--epoll")) {
        ep = epoll_create1(EPOLL_CLOEXEC);
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
    for (int i = 0; i < B; i++) {
        v[i].iov_base = buf[i];
        m[i].msg_hdr.msg_iov = &v[i];
        m[i].msg_hdr.msg_iovlen = 1;
        m[i].msg_hdr.msg_name = &from[i];
    }
    for (;;) {
        if (ep >= 0) epoll_wait(ep, &e, 1, -1);
        if (batches) {
            echo_batch(fd);
        } else {
            echo_single(fd, ep >= 0 ? B : 1);
        }
    }
}
