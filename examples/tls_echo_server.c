// A TLS echo server that renews its certificate without dropping anyone.
//
// Send SIGHUP (on Windows press Ctrl-Break) when the files have changed: who connects from then on
// sees the new certificate, who is connected goes on under the old one. Files that cannot be used,
// such as a key that does not fit, are reported and the old certificate stays.
//
// With a CA file as last argument clients must show a certificate that it issued.
//
// Build  cc -DNETIO_TLS_OPENSSL tls_echo_server.c -o tls_echo_server -lssl -lcrypto
// Try    openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext
//            subjectAltName=DNS:localhost -keyout key.pem -out cert.pem         (in one line)
//        ./tls_echo_server cert.pem key.pem
//        openssl s_client -connect localhost:8443 -CAfile cert.pem -verify_return_error
#define NETIO_IMPLEMENTATION
#include "../netio_tls.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#ifndef SIGHUP
#define SIGHUP SIGBREAK
#endif

static netio_loop *loop;
static netio_listener listener;
static netio_tls_ctx *current;
static netio_tls_config config; // the files, to be read again

// Returns whether `current` is what the files say now.
static bool load(void)
{
    netio_tls_ctx *fresh;
    netio_tls_error why;
    if (netio_tls_ctx_create(&fresh, &config, &why) < 0) {
        fprintf(stderr, "%s\n", why.text);
        return false;
    }
    netio_tls_ctx_unref(current); // connections hold references of their own
    current = fresh;
    return true;
}

static void on_hangup(void *user)
{
    (void)user;
    bool fresh = load();
    if (fresh) netio_listener_set_filter(listener, netio_tls_filter(current));
    printf("%s\n", fresh ? "reloaded" : "kept the old certificate");
    fflush(stdout);
}

static void on_stop(void *user)
{
    (void)user;
    netio_loop_finish(loop, 1000);
}

// Runs when the handshake is done; with a CA, not before the client was verified.
static void on_open(netio_conn c)
{
    netio_tls_info info;
    if (netio_tls_conn_info(c, &info) < 0) return;
    printf("%s %s%s, client %s\n", info.version_text, info.cipher, info.resumed ? " resumed" : "",
           info.chain_len ? info.chain[0].subject : "without a certificate");
    fflush(stdout);
}

static void on_data(netio_conn c, const void *data, size_t len) { netio_conn_write(c, data, len); }

static const netio_handler echo = {.on_open = on_open, .on_data = on_data};

// A handshake failed, so there was never a connection: port scanners, old clients, no certificate.
static void on_refused(void *user, const netio_addr *peer, const netio_error *why)
{
    (void)user, (void)peer;
    fprintf(stderr, "refused: %s\n", why->text);
}

int main(int argc, char **argv)
{
    char address[NETIO_ADDR_TEXT] = ":8443";
    netio_listener_opts opts = {.on_refused = on_refused};
    netio_addr local;
    if (argc < 3 || argc > 5) {
        fprintf(stderr, "usage: tls_echo_server CERT KEY [ADDRESS] [CA]\n");
        return 2;
    }
    config.cert_file = argv[1];
    config.key_file = argv[2];
    if (argc > 3) snprintf(address, sizeof address, "%s", argv[3]);
    if (argc > 4) {
        config.ca_file = argv[4];
        config.client_cert = NETIO_TLS_CLIENT_CERT_REQUIRED;
    }
    if (!load()) return 1;

    opts.conn.filter = netio_tls_filter(current); // this line makes it TLS
    int err = netio_loop_create(&loop, NULL);
    if (err == 0) err = netio_listener_open(&listener, loop, address, &echo, &opts);
    if (err == 0) err = netio_listener_addr(listener, &local);
    if (err == 0) err = netio_addr_format(&local, address, sizeof address);
    if (err >= 0) err = netio_signal_start(NULL, loop, SIGHUP, on_hangup, NULL);
    if (err >= 0) err = netio_signal_start(NULL, loop, SIGINT, on_stop, NULL);
    if (err >= 0) err = netio_signal_start(NULL, loop, SIGTERM, on_stop, NULL);
    if (err >= 0) {
        printf("listening on %s\n", address);
        fflush(stdout);
        err = netio_loop_run(loop);
    }
    if (err < 0) fprintf(stderr, "tls_echo_server: %s: %s\n", address, netio_strerror(err));
    netio_loop_destroy(loop);
    netio_tls_ctx_unref(current);
    return err < 0;
}
