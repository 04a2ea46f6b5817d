// One message to ourselves over TLS on one loop, and back. The client trusts one certificate and
// wants the name in it.
//
//     consumer CERTIFICATE KEY
#include <netio_tls.h>
#include <stdio.h>
#include <string.h>

static char got[64];
static size_t got_len;

static void say_hello(netio_conn c) { netio_conn_write(c, "hello", 5); }

static void echo(netio_conn c, const void *data, size_t len) { netio_conn_write(c, data, len); }

static void keep(netio_conn c, const void *data, size_t len)
{
    netio_tls_info info = {0};
    if (len > sizeof got - 1 - got_len) len = sizeof got - 1 - got_len;
    memcpy(got + got_len, data, len);
    got_len += len;
    if (got_len < 5) return;
    if (netio_tls_conn_info(c, &info) == 0)
        printf("netio %s, %s, %s: %s\n", NETIO_VERSION, netio_tls_backend(NETIO_TLS_BACKEND_AUTO),
               info.version_text, got);
    netio_conn_close(c);
}

int main(int argc, char **argv)
{
    netio_tls_config as_server = {0}, as_client = {0};
    netio_handler server = {0}, client = {0};
    netio_listener_opts listener_opts = {0};
    netio_dial_opts dial_opts = {0};
    netio_tls_ctx *server_ctx, *client_ctx;
    netio_tls_error why;
    netio_listener l;
    netio_loop *loop;
    netio_addr addr;
    netio_conn c;
    char text[NETIO_ADDR_TEXT];

    if (argc != 3) return 2;
    as_server.cert_file = argv[1];
    as_server.key_file = argv[2];
    as_client.ca_file = argv[1];
    if (netio_tls_ctx_create(&server_ctx, &as_server, &why) < 0) return puts(why.text), 3;
    if (netio_tls_ctx_create(&client_ctx, &as_client, &why) < 0) return puts(why.text), 4;
    server.on_data = echo;
    client.on_open = say_hello;
    client.on_data = keep;
    listener_opts.conn.filter = netio_tls_filter(server_ctx);
    dial_opts.conn.filter = netio_tls_filter(client_ctx);
    dial_opts.server_name = "consumer.test";
    if (netio_loop_create(&loop, NULL) < 0) return 5;
    if (netio_listener_open(&l, loop, "127.0.0.1:0", &server, &listener_opts) < 0) return 6;
    if (netio_listener_addr(l, &addr) < 0) return 7;
    if (netio_addr_format(&addr, text, sizeof text) < 0) return 8;
    if (netio_conn_dial(&c, loop, text, &client, &dial_opts) < 0) return 9;
    for (int i = 0; i < 500 && got_len < 5; i++) netio_loop_run_once(loop, 10);
    netio_loop_destroy(loop);
    netio_tls_ctx_unref(server_ctx);
    netio_tls_ctx_unref(client_ctx);
    return strcmp(got, "hello") != 0;
}
