// netio.c's echo, sink and source with one more line for TLS.
//
//     cc -O2 -I. bench/servers/netio_tls.c -o netio_tls -lssl -lcrypto -lpthread
//     ./netio_tls PORT echo|sink|source --cert FILE --key FILE [--piece BYTES]
//
// --piece is how much `source` writes at a time, 16384 if it is not given.
#define NETIO_IMPLEMENTATION
#define NETIO_TLS_OPENSSL
#include "netio_tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char block[256 * 1024]; // what `source` sends, again and again
static size_t piece = 16384;

static void echo_data(netio_conn c, const void *data, size_t len)
{
    netio_conn_write(c, data, len);
}

static void source_more(netio_conn c)
{
    while (!netio_conn_congested(c) && netio_conn_write(c, block, piece) == 0) {}
}

static const netio_handler *handler_of(const char *mode)
{
    static const netio_handler echo = {.on_data = echo_data};
    static const netio_handler sink = {.on_data = NULL};
    static const netio_handler source = {.on_open = source_more, .on_drain = source_more};
    if (strcmp(mode, "echo") == 0) return &echo;
    if (strcmp(mode, "sink") == 0) return &sink;
    return strcmp(mode, "source") == 0 ? &source : NULL;
}

int main(int argc, char **argv)
{
    char address[NETIO_ADDR_TEXT];
    netio_listener_opts opts = {0};
    netio_tls_config cfg = {0};
    netio_tls_error why;
    netio_tls_ctx *tls;
    netio_loop *loop;
    if (argc == 9 && strcmp(argv[7], "--piece") == 0) piece = (size_t)atoi(argv[8]);
    else if (argc != 7) piece = 0;
    if (piece < 1 || piece > sizeof block || strcmp(argv[3], "--cert") ||
        strcmp(argv[5], "--key") || !handler_of(argv[2])) {
        fprintf(stderr, "usage: %s PORT echo|sink|source --cert FILE --key FILE [--piece BYTES]\n",
                argv[0]);
        return 2;
    }
    cfg.cert_file = argv[4];
    cfg.key_file = argv[6];
    if (netio_tls_ctx_create(&tls, &cfg, &why) < 0) {
        fprintf(stderr, "%s\n", why.text);
        return 1;
    }
    snprintf(address, sizeof address, "127.0.0.1:%s", argv[1]);
    opts.conn.filter = netio_tls_filter(tls);
    int err = netio_loop_create(&loop, NULL);
    if (err == 0) err = netio_listener_open(NULL, loop, address, handler_of(argv[2]), &opts);
    if (err == 0) err = netio_loop_run(loop);
    if (err < 0) fprintf(stderr, "%s\n", netio_strerror(err));
    return err < 0;
}
