// What the TLS tests share: certificates, contexts in one line, and two engines that talk.
#ifndef NETIO_TLS_TEST_H
#define NETIO_TLS_TEST_H

#include "test.h"

#include "netio_tls.h"

// A file that certs.sh made, in the directory of NETIO_TEST_CERTS; without one the test is skipped.
const char *tls_file(const char *name);

bool tls_is(const char *library); // the backend in use, "BoringSSL"

// Contexts: of what certs.sh made, `how` changed first. A server with NAME.pem; a client that
// trusts ca.crt.
typedef void (*tls_change)(netio_tls_config *cfg);
netio_tls_ctx *tls_server_ctx(const char *pem, tls_change how);
netio_tls_ctx *tls_client_ctx(tls_change how);

// A client and a server. run() moves bytes between them, `chunk` at a time (0: all), until nothing
// moves any more.
typedef struct tls_pair {
    netio_tls *client, *server;
    size_t chunk;
    int client_err, server_err;  // of the last handshake, read or write
    size_t to_server, to_client; // bytes so far
} tls_pair;

void tls_pair_open(tls_pair *p, netio_tls_ctx *client, netio_tls_ctx *server, const char *name);
void tls_pair_close(tls_pair *p);
size_t tls_move(netio_tls *from, netio_tls *to, size_t chunk);
void tls_handshake(tls_pair *p);      // drives both until neither moves
void tls_handshake_done(tls_pair *p); // and checks that it succeeded

// One way or back: `len` bytes of test_fill, compared at the other end.
void tls_send_check(netio_tls *from, netio_tls *to, size_t len, size_t chunk);

// A handshake of two contexts, expected to succeed, or to fail at the client with these bits.
void tls_expect_ok(netio_tls_ctx *client, netio_tls_ctx *server, const char *name);
void tls_expect_refused(netio_tls_ctx *client, netio_tls_ctx *server, const char *name,
                        unsigned bits);

#endif // NETIO_TLS_TEST_H
