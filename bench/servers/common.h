// What the servers here share: their arguments, the listening socket, the numbers of the contract.
//
//   SERVER PORT MODE [flags]     MODE: echo, sink, source, fan, udp; each server has some of them
//
// All of them: one thread, a port on the loopback, backlog 4096, a read buffer of 64 KiB (epoll.c
// and netio_poller.c: 256 KiB). TCP_NODELAY is set on the listener: Linux hands it down to the
// sockets it accepts, which saves a call per connection.
#ifndef COMMON_H
#define COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 4096
#define RBUF (64 * 1024)
#define MAXFD 20000

enum mode { ECHO_, SINK, SOURCE, FAN, UDP }; // termios.h has an ECHO

static int g_port;
static enum mode g_mode;
static int g_argc;
static char **g_argv;
static char g_rbuf[RBUF] __attribute__((unused));
static char g_zeros[256 * 1024] __attribute__((unused));

static inline int flag(const char *name)
{
    for (int i = 3; i < g_argc; i++) {
        if (!strcmp(g_argv[i], name)) return 1;
    }
    return 0;
}

static inline const char *option(const char *name, const char *otherwise)
{
    for (int i = 3; i + 1 < g_argc; i++) {
        if (!strcmp(g_argv[i], name)) return g_argv[i + 1];
    }
    return otherwise;
}

static inline void start(int argc, char **argv)
{
    static const char *const modes[] = {"echo", "sink", "source", "fan", "udp"};
    struct rlimit rl;
    int mode = 0;
    if (argc < 3) {
        fprintf(stderr, "usage: %s PORT MODE [flags]\n", argv[0]);
        exit(2);
    }
    while (mode <= UDP && strcmp(argv[2], modes[mode])) {
        mode++;
    }
    if (mode > UDP) {
        fprintf(stderr, "%s: no mode %s\n", argv[0], argv[2]);
        exit(2);
    }
    g_argc = argc;
    g_argv = argv;
    g_port = atoi(argv[1]);
    g_mode = (enum mode)mode;
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max < MAXFD ? rl.rlim_max : MAXFD;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}

static inline struct sockaddr_in loopback(void)
{
    struct sockaddr_in a;
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons((uint16_t)g_port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static inline int listen_tcp(void)
{
    struct sockaddr_in a = loopback();
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, BACKLOG) < 0) {
        perror("bind, listen");
        exit(1);
    }
    return fd;
}

static inline int bind_udp(int nonblock)
{
    struct sockaddr_in a = loopback();
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        perror("udp");
        exit(1);
    }
    return fd;
}

#endif // COMMON_H
