// A server and a client in one program: the same exchange over TCP (IPv4 and IPv6), UDP and a Unix
// socket, and how long the way there and back takes.
//
// No threads and no waiting for ever: every call that may wait has a time limit, and the program
// plays both ends in turn. For a server with many clients see tcp_echo_server.c.
//
// Build  cc quickstart.c -o quickstart     (Windows: gcc quickstart.c -o quickstart.exe -lws2_32)
// Try    ./quickstart
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT_MS = 2000, ROUNDS = 1000, BYTES = 64 };

// The server's part: receive `len` bytes, send them back in capitals.
static int serve(netio_socket s, bool datagrams, size_t len)
{
    char buf[BYTES];
    netio_addr from;
    ptrdiff_t n = datagrams ? netio_recvfrom(s, buf, sizeof buf, &from, LIMIT_MS)
                            : netio_recv_exact(s, buf, len, NULL, LIMIT_MS);
    if (n < 0) return (int)n;
    for (size_t i = 0; i < len; i++) buf[i] = (char)toupper((unsigned char)buf[i]);
    if (!datagrams) return netio_send_all(s, buf, len, NULL, LIMIT_MS);
    n = netio_sendto(s, buf, len, &from, LIMIT_MS);
    return n < 0 ? (int)n : 0;
}

// The client's part, with the server's in its middle.
static int exchange(netio_socket client, netio_socket server, bool datagrams, const char *say,
                    char *hear, size_t len)
{
    int err = netio_send_all(client, say, len, NULL, LIMIT_MS);
    if (err == 0) err = serve(server, datagrams, len);
    if (err == 0) err = netio_recv_exact(client, hear, len, NULL, LIMIT_MS);
    return err;
}

static int talk(netio_socket client, netio_socket server, bool datagrams, const char *name)
{
    char say[BYTES], hear[BYTES];
    uint64_t min = UINT64_MAX, max = 0, sum = 0;
    int len = snprintf(say, sizeof say, "Hello over %s!", name);
    int err = exchange(client, server, datagrams, say, hear, (size_t)len);
    if (err < 0) return err;
    printf("    client says \"%s\", server answers \"%.*s\"\n", say, len, hear);

    int64_t enough = netio_deadline(LIMIT_MS); // a slow machine makes fewer rounds
    int rounds = 0;
    memset(say, 'x', sizeof say);
    do {
        uint64_t start = netio_now_us(), us;
        err = exchange(client, server, datagrams, say, hear, sizeof say);
        if (err < 0) return err;
        us = netio_now_us() - start;
        if (us < min) min = us;
        if (us > max) max = us;
        sum += us;
    } while (++rounds < ROUNDS && netio_deadline_left(enough) > 0);
    printf("    %d round trips of %d bytes: min %d, average %.1f, max %d microseconds\n\n", rounds,
           BYTES, (int)min, (double)sum / rounds, (int)max);
    return 0;
}

static int worked, failed; // what this machine lacks is neither

static void show(const char *name, const char *address, bool datagrams)
{
    netio_socket listener, client = NETIO_INVALID_SOCKET, server = NETIO_INVALID_SOCKET;
    netio_socket_opts dial = {.type = datagrams ? NETIO_DGRAM : NETIO_STREAM};
    netio_addr local = {0};
    char text[NETIO_ADDR_TEXT];

    int err =
        datagrams ? netio_bind(&listener, address, NULL) : netio_listen(&listener, address, NULL);
    if (err < 0) {
        printf("%s: not on this machine (%s)\n\n", name, netio_strerror(err));
        return;
    }
    err = netio_local_addr(listener, &local); // port 0 in `address` means any: see which
    if (err == 0) err = netio_addr_format(&local, text, sizeof text);
    if (err >= 0) printf("%s: server on %s\n", name, text);
    if (err >= 0) err = netio_connect(&client, text, &dial, LIMIT_MS);
    if (err == 0 && !datagrams) err = netio_accept(&server, listener, NULL, LIMIT_MS);
    if (err == 0) err = talk(client, datagrams ? listener : server, datagrams, name);
    if (err < 0) printf("    failed: %s\n\n", netio_strerror(err));
    if (err < 0) failed++;
    else worked++;

    netio_close(&client); // closing what was never opened does no harm
    netio_close(&server);
    netio_close(&listener);
    if (netio_addr_family(&local) == NETIO_UNIX) netio_unix_unlink(&local);
}

int main(void)
{
    const char *dir = getenv("TMPDIR") ? getenv("TMPDIR") : getenv("TEMP");
    char path[NETIO_ADDR_TEXT];
    snprintf(path, sizeof path, "unix:%s/quickstart-%u.sock", dir ? dir : "/tmp",
             (unsigned)netio_now_us());

    printf("netio " NETIO_VERSION ": one program, both ends\n\n");
    show("TCP, IPv4", "127.0.0.1:0", false);
    show("TCP, IPv6", "[::1]:0", false);
    show("UDP", "127.0.0.1:0", true);
    show("Unix socket", path, false);
    if (failed || !worked) return 1;
    printf("Now with a server of its own. In one terminal\n"
           "    cc examples/tcp_echo_server.c -o echo && ./echo :7777\n"
           "and in another, where each line that you type comes back\n"
           "    nc 127.0.0.1 7777\n"
           "No nc here? It is an example too: cc examples/nc.c -o nc && ./nc 127.0.0.1 7777\n");
    return 0;
}
