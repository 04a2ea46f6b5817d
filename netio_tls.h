/*
netio_tls.h: TLS for netio.h, over the TLS library that the project already has.

    // get.c: cc get.c -o get -lssl -lcrypto
    #define NETIO_IMPLEMENTATION          // in exactly one file of the program
    #define NETIO_TLS_OPENSSL             // or one of the others below; link that library
    #include "netio_tls.h"                // includes netio.h

    int main(void)
    {
        netio_tls_ctx *ctx;
        netio_tls_config cfg = {0};       // verified, against what this system trusts
        netio_stream st;
        char buf[4096];
        if (netio_tls_ctx_create(&ctx, &cfg, NULL) < 0) return 1;
        if (netio_tls_connect(&st, "example.com:443", ctx, NULL, NULL, 5000) < 0) return 1;
        netio_stream_send_all(&st, "GET / HTTP/1.0\r\n\r\n", 18, NULL, 5000);
        while (netio_stream_recv(&st, buf, sizeof buf, 5000) > 0) continue;
        netio_stream_close(&st);
        netio_tls_ctx_unref(ctx);
        return 0;
    }

A server on the loop is one line more than without TLS:

    netio_tls_config cfg = {.cert_file = "site.pem", .key_file = "site.key"};
    ...
    opts.conn.filter = netio_tls_filter(ctx);       // the handler sees plain bytes
    netio_listener_open(NULL, loop, ":8443", &handler, &opts);

CONTENTS  search for >>name to reach the declarations, >>name.c to reach the code

    >>tls-error    what went wrong, in full        >>tls-stream   blocking streams
    >>tls-config   certificates, trust, checks     >>tls-engine   no sockets: you move the bytes
    >>tls-conn     on connections of the loop

                   Code only: >>tls-der >>tls-name >>tls-core >>tls-verify >>tls-session
                   >>tls-openssl >>tls-none

SAFE AS IT COMES  The chain, its dates, its strength and the host's name are verified; TLS 1.2 is
the floor, with forward secrecy and authenticated ciphers only; an end without close_notify is
NETIO_ETRUNCATED. Only fields that begin with insecure_ turn a check off, one each. Renegotiation,
compression and early data do not exist here.

BACKENDS  define one or more before including, in the file that implements; none is an #error
    NETIO_TLS_OPENSSL   OpenSSL 1.1.1, 3.x, and LibreSSL, BoringSSL, AWS-LC: -lssl -lcrypto
    NETIO_TLS_NONE      no library: every call is NETIO_ENOTSUP
On Windows add -lcrypt32. With more than one, netio_tls_config.backend chooses; several can be in
one program where the headers of their libraries get along.

ENVIRONMENT  netio reads none. OpenSSL's own defaults look at SSL_CERT_FILE, SSL_CERT_DIR and its
configuration file.

THREADS  A context may be used by any number of threads once it is made. An engine or a stream
belongs to one thread at a time; so do not receive on one thread while another sends.

MEMORY  What netio needs comes from NETIO_MALLOC, with limits; the library has its own allocator.
*/
#ifndef NETIO_TLS_H
#define NETIO_TLS_H

#include "netio.h"

#ifdef __cplusplus
extern "C" {
#endif

//================================================================================================
// >>tls-error                                                           what went wrong, in full
//
// Calls return NETIO_ETLS (or NETIO_ETRUNCATED, NETIO_ETIMEDOUT, ...); the record says which part
// and why. On a connection netio_conn_error carries the text, netio_tls_conn_error the record.
//================================================================================================

enum {
    NETIO_TLS_CONFIG = 1, // certificate, key or setting, before any handshake
    NETIO_TLS_VERIFY,     // the peer's certificate: see netio_tls_error.verify
    NETIO_TLS_PROTOCOL,   // the peer does not speak TLS, or wrongly, or we have nothing in common
    NETIO_TLS_ALERT,      // the peer refused us: see alert_in
    NETIO_TLS_VERSION,    // no version in common
    NETIO_TLS_ALPN,       // no protocol in common
    NETIO_TLS_CUT_OFF,    // the end came without close_notify
    NETIO_TLS_LIMIT,      // more certificate bytes, empty records or output than allowed
    NETIO_TLS_BACKEND     // anything else; backend_code is the library's
};

enum { // bits of netio_tls_error.verify
    NETIO_TLS_EXPIRED = 1,
    NETIO_TLS_NOT_YET = 2,
    NETIO_TLS_UNTRUSTED = 4,    // self-signed, or no known CA
    NETIO_TLS_NAME = 8,         // good certificate, other host
    NETIO_TLS_PURPOSE = 16,     // not for servers, not for clients, or no CA
    NETIO_TLS_WEAK = 32,        // RSA below 2048 bits, EC below 224, MD5 or SHA-1 signature
    NETIO_TLS_REVOKED = 64,     // or no good OCSP answer where one is required
    NETIO_TLS_CONSTRAINT = 128, // a CA issued what it may not: names, path length
    NETIO_TLS_NO_CERT = 256,
    NETIO_TLS_BAD_SIG = 512,
    NETIO_TLS_PIN = 1024,
    NETIO_TLS_REFUSED = 2048, // by on_verify
    NETIO_TLS_OTHER = 4096
};

typedef struct netio_tls_error {
    int code;             // NETIO_TLS_*; 0: none
    unsigned verify;      // which checks failed, all of them
    int depth;            // in the chain, of the one in the text; 0: the peer's own
    int alert_in;         // received from the peer; -1: none
    int alert_out;        // sent to it; -1: none
    int64_t backend_code; // 0: none
    char text[160];       // "certificate of example.test expired on 2026-11-01 (depth 0)"
} netio_tls_error;

//================================================================================================
// >>tls-config                                                     certificates, trust, checks
//
// A context is made once, checked in full, never changed, shared by all its connections, as client
// and as server. To renew a certificate make a new one and put it in the old one's place: who is
// connected keeps the old.
//================================================================================================

typedef struct netio_tls_ctx netio_tls_ctx;
typedef struct netio_tls netio_tls;

enum { NETIO_TLS_1_0 = 0x0301, NETIO_TLS_1_1, NETIO_TLS_1_2, NETIO_TLS_1_3 };
enum { NETIO_TLS_CLIENT_CERT_NONE, NETIO_TLS_CLIENT_CERT_OPTIONAL, NETIO_TLS_CLIENT_CERT_REQUIRED };
enum { NETIO_TLS_BACKEND_AUTO, NETIO_TLS_BACKEND_OPENSSL };

// One certificate of the peer's chain, lent to on_verify and by netio_tls_get_info. Texts are UTF-8
// as the peer wrote them, but control bytes are escaped ("\0A").
typedef struct netio_tls_cert {
    netio_buf der;
    netio_buf serial;             // as in the certificate, most significant byte first
    const char *subject, *issuer; // "C=DE,O=Example,CN=example.test"
    const char *const *names;     // DNS names and addresses it is for
    size_t name_count;
    int64_t not_before, not_after; // seconds since 1970
    uint8_t sha256[32];            // of the certificate
    uint8_t spki_sha256[32];       // of its public key: what pins compare (RFC 7469 section 2.4)
} netio_tls_cert;

typedef struct netio_tls_info {
    int version;              // NETIO_TLS_1_2, ...; 0: not known yet
    const char *version_text; // "TLSv1.3"
    const char *cipher;       // "TLS_AES_128_GCM_SHA256"
    const char *alpn;         // chosen protocol; "": none
    const char *server_name;  // asked for by the client, or dialed; "": none
    const char *psk_identity; // of the key that both have; "": none
    bool resumed;
    size_t chain_len;
    const netio_tls_cert *chain; // of the peer, its own first; NULL: none. Resumed: its own alone
} netio_tls_info;

// A certificate chain, the own one first, and its key: PEM, DER or PKCS#12. Without a key the one
// in the certificate's file is taken. All borrowed only during create.
typedef struct netio_tls_identity {
    const char *cert_file, *key_file;
    const void *cert, *key;   // bytes instead of files
    size_t cert_len, key_len; // 0: C strings
    const char *staple_file;  // server: an OCSP answer (DER) to hand out with it; NULL: none
} netio_tls_identity;

// All zero: a client that trusts what the system trusts.
typedef struct netio_tls_config {
    void *user;  // for all callbacks
    int backend; // NETIO_TLS_BACKEND_*; 0: the first that was compiled in
    // Trust, PEM or DER. Given roots replace the system's unless add_system_roots.
    const char *ca_file;
    const char *ca_dir; // every file in it
    const void *ca;     // bytes
    size_t ca_len;      // 0: ca is a C string
    bool add_system_roots;
    // Identity: see netio_tls_identity.
    const char *cert_file, *key_file;
    const void *cert, *key;
    size_t cert_len, key_len;
    const char *staple_file;
    int (*key_password)(void *user, char *buf, size_t cap); // returns its length
    // Server. More certificates: the first that is for the name asked for, else the one above. Two
    // of different key types with the same names go out as the client can use them.
    const netio_tls_identity *more;
    size_t more_count;
    int client_cert; // NETIO_TLS_CLIENT_CERT_*; 0: none. Others need a ca
    // Context for a name; the engine holds a reference from then on. NULL: this one. So replace
    // contexts on the thread that runs the loop, or lock and netio_tls_ctx_ref.
    netio_tls_ctx *(*on_sni)(void *user, const char *name);
    // Protocol.
    int min_version;         // 0: TLS 1.2
    int max_version;         // 0: the highest there is
    const char *const *alpn; // best first, at most 32; NULL: do not negotiate. A server refuses
    size_t alpn_count;       // clients that offer none of them; one that offers nothing is let in
    const char *ciphers;     // of TLS 1.2, in the library's syntax; NULL: ECDHE with AEAD only
    // Limits.
    size_t peer_chain_max; // bytes of the peer's certificates; 0: 64 KiB
    // Resumption: never without the checks that this context would make. A context keeps the
    // sessions of its clients and uses them by itself; on_session is for keeping them elsewhere,
    // and may get several for one connection. Sessions hold secrets.
    bool no_tickets;
    size_t session_max; // client sessions kept; 0: 32
    void (*on_session)(void *user, const char *server_name, const void *session, size_t len);
    // Server: secrets for tickets, that all machines of a service share: the first one seals, all
    // open. NULL: own ones, replaced every 12 hours.
    const uint8_t (*ticket_keys)[32];
    size_t ticket_key_count;
    // Pre-shared keys instead of certificates; no resumption. A client fills in both (identity goes
    // out in the clear), a server looks `identity` up. Returns the key's length; 0: unknown.
    int (*psk)(void *user, char *identity, size_t identity_cap, uint8_t *key, size_t key_cap);
    // Further checks; they can only refuse. Pins: SHA-256 of public keys, one must be in the chain.
    const uint8_t (*pins)[32];
    size_t pin_count;
    bool (*on_verify)(void *user, const netio_tls_info *peer); // `peer` is lent
    bool require_staple; // client: a good OCSP answer in the handshake
    int64_t verify_time; // seconds since 1970; 0: now
    // Debugging: one line per secret, in the format that Wireshark reads.
    void (*on_keylog)(void *user, const char *line);
    // Weaker, each named for what it costs; nothing turns off all.
    bool insecure_no_chain; // any issuer
    bool insecure_no_name;  // any host
    bool insecure_no_time;
    bool insecure_allow_truncation; // an end without close_notify is NETIO_EOF
    bool insecure_allow_tls_1_0;    // min_version may be 1.0 or 1.1, with their ciphers
} netio_tls_config;

// Load and check everything. `why` may be NULL. netio_tls_ctx_unref frees with the last reference:
// connections hold one too.
// Returns 0; NETIO_ETLS (code NETIO_TLS_CONFIG: no such file, key does not fit, ...), NETIO_ENOTSUP
// (the backend lacks a setting), NETIO_ENOMEM.
// Thread  any, also ref and unref.
NETIO_API int netio_tls_ctx_create(netio_tls_ctx **out, const netio_tls_config *cfg,
                                   netio_tls_error *why);
NETIO_API netio_tls_ctx *netio_tls_ctx_ref(netio_tls_ctx *ctx);
NETIO_API void netio_tls_ctx_unref(netio_tls_ctx *ctx); // NULL: nothing

// "OpenSSL 3.0.17"; NULL: not in this build. AUTO: the one in use; "none" with NETIO_TLS_NONE.
NETIO_API const char *netio_tls_backend(int backend);

typedef struct netio_tls_client_opts {
    const void *session; // from on_session, to resume; NULL: what the context has
    size_t session_len;
    netio_socket_opts socket; // netio_tls_connect only
} netio_tls_client_opts;

#ifndef NETIO_NO_LOOP
//================================================================================================
// >>tls-conn                                                        on connections of the loop
//
// The filter does it all: put it into netio_conn_opts.filter for TLS from the start, or call
// netio_conn_add_filter for STARTTLS. on_open (on_secure) runs when the handshake is done;
// handshake timeout, back-pressure, framing, half-close are those of the connection. Dialed ones
// are clients and check the host that was dialed (netio_dial_opts.server_name); others are servers.
//================================================================================================

NETIO_API netio_filter netio_tls_filter(netio_tls_ctx *ctx);

// For connections where dialed or accepted does not tell the role (adopt, pair), and to resume a
// session of yours. `opts` may be NULL.
// Returns 0; as netio_tls_client and netio_conn_add_filter.
NETIO_API int netio_tls_start_client(netio_conn c, netio_tls_ctx *ctx, const char *server_name,
                                     const netio_tls_client_opts *opts);
NETIO_API int netio_tls_start_server(netio_conn c, netio_tls_ctx *ctx);

// What was negotiated and who the peer is, why it failed, and the engine for all else: each lent
// while the connection lives, on_close included.
// Returns 0; NETIO_ENOENT (no TLS on it, or a stale handle; error: nothing failed); engine: NULL
NETIO_API int netio_tls_conn_info(netio_conn c, netio_tls_info *out);
NETIO_API int netio_tls_conn_error(netio_conn c, netio_tls_error *out);
NETIO_API netio_tls *netio_tls_conn_engine(netio_conn c);
#endif // NETIO_NO_LOOP

#if !defined(NETIO_NO_STREAM) && !defined(NETIO_NO_FRAME)
//================================================================================================
// >>tls-stream                                                              blocking streams
//
// The result is a netio_stream: receive, send, frames, shutdown (close_notify) and close as there.
// Each call has its own deadline. What a send that ran out of time could not pass on is already
// encrypted: it counts as sent and goes first in the next call. close sends what waits, and if
// nothing has come since, waits for the peer's end so that nothing is lost, both for at most 2 s.
// `why` (may be NULL) has a line of text for every failure, also of the network. A stream of TLS
// cannot be peeked at: netio_stream_read_frame leaves what it does not use in the decoder.
//================================================================================================

// Connect to "host:port", handshake, verify. Returns 0; as netio_connect; NETIO_ETLS.
NETIO_API int netio_tls_connect(netio_stream *out, const char *address, netio_tls_ctx *ctx,
                                netio_tls_error *why, const netio_tls_client_opts *opts,
                                int timeout_ms);

// TLS over a stream that is there (a socket, a proxy tunnel, after STARTTLS). Takes `*under`, which
// may be `*out`.
// server_name NULL: this side is the server; "": a client that needs none (insecure_no_name, psk).
// Returns 0; NETIO_ETLS, NETIO_ETRUNCATED, NETIO_ETIMEDOUT; as the stream's calls
NETIO_API int netio_tls_wrap(netio_stream *out, netio_stream *under, const char *server_name,
                             netio_tls_ctx *ctx, netio_tls_error *why,
                             const netio_tls_client_opts *opts, int timeout_ms);

NETIO_API netio_tls *netio_tls_stream_engine(const netio_stream *st); // NULL: it is no TLS stream
#endif                                                                // NETIO_NO_STREAM

//================================================================================================
// >>tls-engine                                                  no sockets: you move the bytes
//
// One engine is one end of one session. After every call, also one that failed (the alert for the
// peer is there), send what netio_tls_out shows. Output never blocks the engine: write refuses
// while more than 64 KiB wait, and only handshakes may go beyond.
//
//     netio_tls_feed(t, data, len);                        // from the peer
//     while ((n = netio_tls_read(t, buf, sizeof buf)) > 0) use(buf, n);
//     while ((out = netio_tls_out(t)).len) netio_tls_out_drop(t, send(out));
//================================================================================================

// `server_name` is a host name (ASCII; international ones as xn--) or an address; it goes out in
// the clear. `opts` may be NULL.
// Returns 0; NETIO_EINVAL (client without server_name, or with none that can be verified),
// NETIO_ENOMEM; NETIO_ETLS (this system trusts no CA at all).
NETIO_API int netio_tls_client(netio_tls **out, netio_tls_ctx *ctx, const char *server_name,
                               const netio_tls_client_opts *opts);
NETIO_API int netio_tls_server(netio_tls **out,
                               netio_tls_ctx *ctx); // ENOENT: it has no certificate
NETIO_API void netio_tls_destroy(netio_tls *t);

// Bytes from the peer, copied; and their end.
// Returns 0; NETIO_ENOBUFS (1 MiB waits to be read: nothing taken), NETIO_ENOMEM.
NETIO_API int netio_tls_feed(netio_tls *t, const void *data, size_t len);
NETIO_API void netio_tls_feed_end(netio_tls *t);

// Bytes for the peer, oldest first, in place; drop what was sent.
NETIO_API netio_buf netio_tls_out(const netio_tls *t);
NETIO_API void netio_tls_out_drop(netio_tls *t, size_t len);

// Go on as far as the fed bytes allow; read and write do so by themselves.
// Returns 0 when the handshake is done; NETIO_EAGAIN: needs more bytes; NETIO_ETLS,
// NETIO_ETRUNCATED, NETIO_ENOMEM: over, the same from now on.
NETIO_API int netio_tls_handshake(netio_tls *t);

// Plain bytes. read: what one record has, at most `cap`; never before the peer was verified. write:
// as much as the 64 KiB allow.
// Returns bytes; NETIO_EAGAIN (needs bytes from the peer), as handshake; read: NETIO_EOF
// (close_notify), NETIO_ETRUNCATED; write: NETIO_ENOBUFS (send netio_tls_out first), NETIO_EPIPE
// (after shutdown)
NETIO_API ptrdiff_t netio_tls_read(netio_tls *t, void *buf, size_t cap);
NETIO_API ptrdiff_t netio_tls_write(netio_tls *t, const void *data, size_t len);
NETIO_API int netio_tls_shutdown(netio_tls *t); // close_notify; reading goes on. As handshake

// What was negotiated and who the peer is (lent until destroy), and why it failed (NETIO_ENOENT: it
// did not).
NETIO_API int netio_tls_get_info(netio_tls *t, netio_tls_info *out);
NETIO_API int netio_tls_get_error(const netio_tls *t, netio_tls_error *out);

// Keying material for other protocols (RFC 5705, RFC 8446 section 7.5). `context` NULL: none.
// "EXPORTER-Channel-Binding" with 32 bytes is the binding tls-exporter (RFC 9266).
// Returns 0; NETIO_EAGAIN: the handshake is not done; NETIO_ETLS.
NETIO_API int netio_tls_export(netio_tls *t, const char *label, const void *context,
                               size_t context_len, void *out, size_t len);

#ifdef __cplusplus
}
#endif
#endif // NETIO_TLS_H

//################################################################################################
//
//                                        IMPLEMENTATION
//
//################################################################################################

#if defined(NETIO_IMPLEMENTATION) && !defined(NETIO__TLS_IMPLEMENTED)
#include "netio.h" // its code, where only the declarations were included so far
#endif
#if defined(NETIO_IMPLEMENTATION) && !defined(NETIO__TLS_IMPLEMENTED) && !defined(NETIO__STOP)
#define NETIO__TLS_IMPLEMENTED 1

#if !defined(NETIO_TLS_OPENSSL) && !defined(NETIO_TLS_NONE)
#error "netio_tls.h: define NETIO_TLS_OPENSSL (also LibreSSL, BoringSSL, AWS-LC) or NETIO_TLS_NONE"
#define NETIO__TLS_STOP 1
#endif
#ifndef NETIO__TLS_STOP

#if defined(NETIO_TLS_OPENSSL)
#define NETIO__TLS_HAS_OPENSSL 1
#else
#define NETIO__TLS_HAS_OPENSSL 0
#endif
#define NETIO__TLS_HAS_ANY NETIO__TLS_HAS_OPENSSL
#if !defined(NETIO_NO_STREAM) && !defined(NETIO_NO_FRAME)
#define NETIO__TLS_HAS_STREAM 1
#else
#define NETIO__TLS_HAS_STREAM 0
#endif
#if !defined(NETIO_NO_LOOP)
#define NETIO__TLS_HAS_LOOP 1
#else
#define NETIO__TLS_HAS_LOOP 0
#endif

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#if !NETIO__WINDOWS
#include <dirent.h>
#endif
#if NETIO__TLS_HAS_OPENSSL
#if NETIO__WINDOWS
#include <wincrypt.h> // before OpenSSL, which undoes its macros X509_NAME and others
#endif
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#if !defined(OPENSSL_IS_BORINGSSL) && !defined(OPENSSL_IS_AWSLC)
#include <openssl/ocsp.h>
#endif
#endif
#ifdef _MSC_VER
#pragma warning(push)
#pragma warning(disable : 4127 4706 4996) // constant conditions, assignments in conditions, fopen
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if NETIO__TLS_HAS_ANY
//================================================================================================
// >>tls-error.c
//================================================================================================

#define NETIO__TLS_END ((const char *)NULL) // of the pieces of netio__tls_say

// Fill in a record whose text is the given pieces one after another, up to NETIO__TLS_END.
// Returns NETIO_ETLS.
static int netio__tls_say(netio_tls_error *e, int code, ...)
{
    va_list pieces;
    const char *piece;
    size_t at = 0;
    if (!e) return NETIO_ETLS;
    va_start(pieces, code);
    while ((piece = va_arg(pieces, const char *)) != NULL)
        at = netio__text_z(e->text, sizeof e->text, at, piece);
    va_end(pieces);
    e->code = code;
    return NETIO_ETLS;
}

static void netio__tls_error_clear(netio_tls_error *e)
{
    if (!e) return;
    memset(e, 0, sizeof *e);
    e->alert_in = e->alert_out = -1;
}

// RFC 8446 section 6.2 and its predecessors, and what to do about them.
static const char *netio__tls_alert_text(int alert)
{
    switch (alert) {
    case 10: return "unexpected message";
    case 20: return "bad record MAC";
    case 22: return "record overflow";
    case 40: return "handshake failure: no cipher suite, group or certificate in common";
    case 42: return "bad certificate";
    case 43: return "unsupported certificate";
    case 44: return "certificate revoked";
    case 45: return "certificate expired";
    case 46: return "certificate unknown";
    case 47: return "illegal parameter";
    case 48: return "unknown CA: it does not trust who signed our certificate";
    case 49: return "access denied";
    case 50: return "decode error";
    case 51: return "decrypt error";
    case 70: return "protocol version: it wants another version of TLS";
    case 71: return "insufficient security: it wants stronger ciphers or keys";
    case 80: return "internal error";
    case 86: return "inappropriate fallback";
    case 90: return "user canceled";
    case 109: return "missing extension";
    case 110: return "unsupported extension";
    case 112: return "unrecognized name: it has no certificate for this host name";
    case 113: return "bad certificate status response";
    case 115: return "unknown PSK identity";
    case 116: return "certificate required: it wants a client certificate";
    case 120: return "no application protocol: none of ours in ALPN";
    default: return "unknown alert";
    }
}

// The clock, or where the configuration has put it, in seconds since 1970.
static int64_t netio__tls_time(const netio_tls_config *cfg)
{
    return cfg->verify_time ? cfg->verify_time : (int64_t)time(NULL);
}

// "2026-11-01" of seconds since 1970. Days are counted from 1 March 0000, so that the leap day is
// the last of its year.
static void netio__tls_date(char out[16], int64_t seconds)
{
    int64_t days = (seconds - (seconds < 0 ? 86399 : 0)) / 86400 + 719468;
    int64_t era = days / 146097, of_era = days % 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153;
    unsigned fields[3], width[3] = {1000, 10, 10};
    size_t at = 0;
    fields[2] = (unsigned)(of_year - (153 * month + 2) / 5 + 1);
    fields[1] = (unsigned)(month < 10 ? month + 3 : month - 9);
    fields[0] = (unsigned)(year + era * 400 + (fields[1] <= 2));
    for (int i = 0; i < 3; i++) {
        if (i) at = netio__text(out, 16, at, "-", 1);
        for (unsigned w = width[i]; fields[i] < w && w > 1; w /= 10)
            at = netio__text(out, 16, at, "0", 1);
        at = netio__text_uint(out, 16, at, fields[i], 10);
    }
}

static void netio__tls_wipe(void *p, size_t len)
{
    volatile uint8_t *at = (volatile uint8_t *)p; // a plain memset before free is optimised away
    while (len--) *at++ = 0;
}

//================================================================================================
// >>tls-der.c                                                  certificates, as far as we look in
//
// The library parses and verifies certificates. What netio judges by itself (names, strength,
// purpose, pins) it reads from the same bytes, so that it is the same with every library. DER only:
// definite lengths in their shortest form, at most 16 MiB; anything else ends the reading.
// See ITU-T X.690, RFC 5280 section 4
//================================================================================================

typedef struct netio__der {
    const uint8_t *at;
    size_t len;
} netio__der;

enum {
    NETIO__DER_INTEGER = 0x02,
    NETIO__DER_BITS = 0x03,
    NETIO__DER_OCTETS = 0x04,
    NETIO__DER_OID = 0x06,
    NETIO__DER_SEQUENCE = 0x30,
    NETIO__DER_SET = 0x31
};

// The next element: its tag and its contents. False at the end, and at what is not DER.
static bool netio__der_next(netio__der *d, unsigned *tag, netio__der *inside)
{
    size_t head = 2, len;
    if (d->len < 2 || (d->at[0] & 31) == 31) return false;
    len = d->at[1];
    if (len >= 0x80) {
        size_t bytes = len & 0x7F;
        if (bytes < 1 || bytes > 3 || d->len < 2 + bytes || d->at[2] == 0) return false;
        len = 0;
        for (size_t i = 0; i < bytes; i++) len = len << 8 | d->at[2 + i];
        if (len < 0x80) return false;
        head += bytes;
    }
    if (len > d->len - head) return false;
    *tag = d->at[0];
    inside->at = d->at + head;
    inside->len = len;
    d->at += head + len;
    d->len -= head + len;
    return true;
}

static bool netio__der_take(netio__der *d, unsigned want, netio__der *inside)
{
    netio__der ahead = *d;
    unsigned tag;
    if (!netio__der_next(&ahead, &tag, inside) || tag != want) return false;
    *d = ahead;
    return true;
}

static bool netio__der_is(const netio__der *d, const void *bytes, size_t len)
{
    return d->len == len && memcmp(d->at, bytes, len) == 0;
}

// A certificate's parts: pointers into its bytes. What is absent has length 0.
typedef struct netio__x509 {
    netio__der serial, issuer, subject;
    netio__der spki;      // whole, with its head: what pins hash
    netio__der signature; // its algorithm: OID and parameters
    netio__der names;     // the GeneralNames of subjectAltName
    netio__der purposes;  // the OIDs of extKeyUsage
    int64_t not_before, not_after;
} netio__x509;

static int64_t netio__x509_days(int64_t year, int64_t month, int64_t day) // since 1970-01-01
{
    year -= month <= 2;
    month += month <= 2 ? 9 : -3;
    return year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719469;
}

// UTCTime "YYMMDDHHMMSSZ", or GeneralizedTime with a year of four digits: RFC 5280 section 4.1.2.5.
static bool netio__x509_time(netio__der *d, int64_t *out)
{
    netio__der text;
    unsigned tag;
    int64_t f[7]; // century and year apart, month, day, hour, minute, second
    if (!netio__der_next(d, &tag, &text)) return false;
    size_t skip = tag == 0x18 ? 0 : 1, n = text.len;
    if ((tag != 0x17 && tag != 0x18) || n != 15 - 2 * skip || text.at[n - 1] != 'Z') return false;
    f[0] = 0;
    for (size_t i = skip; i < 7; i++) {
        const uint8_t *digit = text.at + 2 * (i - skip);
        if (digit[0] < '0' || digit[0] > '9' || digit[1] < '0' || digit[1] > '9') return false;
        f[i] = (digit[0] - '0') * 10 + (digit[1] - '0');
    }
    if (skip) f[0] = f[1] < 50 ? 20 : 19;
    if (f[2] < 1 || f[2] > 12 || f[3] < 1 || f[3] > 31) return false;
    *out = netio__x509_days(f[0] * 100 + f[1], f[2], f[3]) * 86400 + f[4] * 3600 + f[5] * 60 + f[6];
    return true;
}

static bool netio__x509_extension(netio__x509 *x, netio__der ext)
{
    static const uint8_t names[] = {0x55, 0x1D, 0x11}, purposes[] = {0x55, 0x1D, 0x25};
    netio__der oid, value, critical;
    if (!netio__der_take(&ext, NETIO__DER_OID, &oid)) return false;
    netio__der_take(&ext, 0x01, &critical);
    if (!netio__der_take(&ext, NETIO__DER_OCTETS, &value)) return false;
    if (netio__der_is(&oid, names, 3)) return netio__der_take(&value, 0x30, &x->names);
    if (netio__der_is(&oid, purposes, 3)) return netio__der_take(&value, 0x30, &x->purposes);
    return true;
}

static bool netio__x509_parse(netio__x509 *x, const void *der, size_t len)
{
    netio__der d, cert, tbs, part, list;
    memset(x, 0, sizeof *x);
    d.at = (const uint8_t *)der;
    d.len = len;
    if (!netio__der_take(&d, NETIO__DER_SEQUENCE, &cert) || d.len) return false;
    if (!netio__der_take(&cert, NETIO__DER_SEQUENCE, &tbs)) return false;
    if (!netio__der_take(&cert, NETIO__DER_SEQUENCE, &x->signature)) return false;
    netio__der_take(&tbs, 0xA0, &part); // version
    if (!netio__der_take(&tbs, NETIO__DER_INTEGER, &x->serial)) return false;
    if (!netio__der_take(&tbs, NETIO__DER_SEQUENCE, &part)) return false;
    if (!netio__der_take(&tbs, NETIO__DER_SEQUENCE, &x->issuer)) return false;
    if (!netio__der_take(&tbs, NETIO__DER_SEQUENCE, &part)) return false;
    if (!netio__x509_time(&part, &x->not_before)) return false;
    if (!netio__x509_time(&part, &x->not_after)) return false;
    if (!netio__der_take(&tbs, NETIO__DER_SEQUENCE, &x->subject)) return false;
    x->spki.at = tbs.at;
    if (!netio__der_take(&tbs, NETIO__DER_SEQUENCE, &part)) return false;
    x->spki.len = (size_t)(tbs.at - x->spki.at);
    netio__der_take(&tbs, 0x81, &part); // unique identifiers, of version 2
    netio__der_take(&tbs, 0x82, &part);
    if (!netio__der_take(&tbs, 0xA3, &list)) return tbs.len == 0;
    if (!netio__der_take(&list, NETIO__DER_SEQUENCE, &part)) return false;
    while (part.len)
        if (!netio__der_take(&part, NETIO__DER_SEQUENCE, &list) || !netio__x509_extension(x, list))
            return false;
    return true;
}

static bool netio__x509_self_issued(const netio__x509 *x)
{
    return netio__der_is(&x->issuer, x->subject.at, x->subject.len);
}

// For a server (or client): no extKeyUsage at all, or one that says so. (One for any purpose is not
// enough: RFC 5280 section 4.2.1.12 leaves that to us, and OpenSSL decides so too.)
static bool netio__x509_serves(const netio__x509 *x, bool server)
{
    static const uint8_t auth[] = {0x2B, 6, 1, 5, 5, 7, 3};
    netio__der list = x->purposes, oid;
    if (list.len == 0) return true;
    while (netio__der_take(&list, NETIO__DER_OID, &oid))
        if (oid.len == 8 && memcmp(oid.at, auth, 7) == 0 && oid.at[7] == (server ? 1 : 2))
            return true;
    return false;
}

// Bits of an RSA modulus or an elliptic curve's field; 0: another kind of key, or not readable.
static size_t netio__x509_key_bits(const netio__x509 *x, bool *rsa)
{
    static const uint8_t rsa_oid[] = {0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1};
    static const uint8_t pss_oid[] = {0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 10};
    static const uint8_t ec_oid[] = {0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1};
    netio__der d = x->spki, info, alg, oid, bits, key, n;
    *rsa = false;
    if (!netio__der_take(&d, NETIO__DER_SEQUENCE, &info)) return 0;
    if (!netio__der_take(&info, NETIO__DER_SEQUENCE, &alg)) return 0;
    if (!netio__der_take(&alg, NETIO__DER_OID, &oid)) return 0;
    if (!netio__der_take(&info, NETIO__DER_BITS, &bits) || bits.len < 2) return 0;
    if (netio__der_is(&oid, ec_oid, sizeof ec_oid)) // 0, then 4, x, y or 2, x or 3, x
        return bits.at[1] == 4 ? (bits.len - 2) / 2 * 8 : (bits.len - 2) * 8;
    if (!netio__der_is(&oid, rsa_oid, 9) && !netio__der_is(&oid, pss_oid, 9)) return 0;
    *rsa = true;
    bits.at++; // unused bits: none
    bits.len--;
    if (!netio__der_take(&bits, NETIO__DER_SEQUENCE, &key)) return 0;
    if (!netio__der_take(&key, NETIO__DER_INTEGER, &n)) return 0;
    while (n.len && n.at[0] == 0) n.at++, n.len--;
    size_t count = n.len * 8;
    for (unsigned top = n.len ? n.at[0] : 0x80; top < 0x80; top <<= 1) count--;
    return count;
}

// Signed with a hash for which collisions are made: MD2 to SHA-1.
static bool netio__x509_weak_signature(const netio__x509 *x)
{
    static const uint8_t rsa[] = {0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1};
    static const uint8_t others[3][7] = {{0x2B, 0x0E, 3, 2, 29},                // RSA, OIW
                                         {0x2A, 0x86, 0x48, 0xCE, 0x38, 4, 3},  // DSA
                                         {0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1}}; // ECDSA
    static const uint8_t sha1[] = {0x2B, 0x0E, 3, 2, 26};
    netio__der d = x->signature, oid, params, hash, alg;
    if (!netio__der_take(&d, NETIO__DER_OID, &oid)) return true;
    for (int i = 0; i < 3; i++)
        if (netio__der_is(&oid, others[i], i == 0 ? 5 : 7)) return true;
    if (oid.len != 9 || memcmp(oid.at, rsa, 8) != 0) return false;
    if (oid.at[8] != 10) return oid.at[8] >= 2 && oid.at[8] <= 5;
    // RSASSA-PSS: the hash is a parameter, and SHA-1 if it is not there (RFC 4055 section 3.1).
    if (!netio__der_take(&d, NETIO__DER_SEQUENCE, &params)) return true;
    if (!netio__der_take(&params, 0xA0, &hash)) return true;
    if (!netio__der_take(&hash, NETIO__DER_SEQUENCE, &alg)) return true;
    if (!netio__der_take(&alg, NETIO__DER_OID, &oid)) return true;
    return netio__der_is(&oid, sha1, 5);
}

// --- as text ------------------------------------------------------------------------------------

// A string of the peer's into a line of ours: what could end or forge a line is escaped, and what
// separates names (RFC 4514 section 2.4). `wide`: UTF-16, of which ASCII is kept.
static size_t netio__x509_string(char *buf, size_t cap, size_t at, netio__der s, bool wide)
{
    for (size_t i = 0; i < s.len; i += wide ? 2 : 1) {
        static const char hex[] = "0123456789ABCDEF";
        uint8_t c = s.at[i];
        if (wide) c = c == 0 && i + 1 < s.len && s.at[i + 1] < 0x80 ? s.at[i + 1] : '?';
        if (c < 0x20 || c == 0x7F) {
            char escape[3] = {'\\', 0, 0};
            escape[1] = hex[c >> 4];
            escape[2] = hex[c & 15];
            at = netio__text(buf, cap, at, escape, 3);
        } else {
            if (c == ',' || c == '\\' || c == '+') at = netio__text(buf, cap, at, "\\", 1);
            at = netio__text(buf, cap, at, (const char *)&c, 1);
        }
    }
    return at;
}

// The kind of a name's part: "CN", or its OID in numbers.
static size_t netio__x509_kind(char *buf, size_t cap, size_t at, netio__der oid)
{
    static const struct netio__x509_kind_row {
        uint8_t last;
        char name[4];
    } rows[] = {{3, "CN"}, {6, "C"}, {7, "L"}, {8, "ST"}, {10, "O"}, {11, "OU"}};
    unsigned value = 0;
    for (size_t i = 0; oid.len == 3 && i < sizeof rows / sizeof rows[0]; i++)
        if (oid.at[0] == 0x55 && oid.at[1] == 4 && oid.at[2] == rows[i].last)
            return netio__text_z(buf, cap, at, rows[i].name);
    for (size_t i = 0, first = 1; i < oid.len; i++) {
        value = value << 7 | (oid.at[i] & 0x7Fu);
        if (oid.at[i] & 0x80) continue;
        if (first) at = netio__text_uint(buf, cap, at, value < 80 ? value / 40 : 2, 10);
        at = netio__text(buf, cap, at, ".", 1);
        if (first) value -= value < 80 ? value / 40 * 40 : 80;
        at = netio__text_uint(buf, cap, at, value, 10);
        first = 0;
        value = 0;
    }
    return at;
}

// A distinguished name, its parts in the certificate's order.
static size_t netio__x509_name(char *buf, size_t cap, size_t at, netio__der name)
{
    netio__der set, part, oid, value;
    unsigned tag;
    size_t begin = at;
    while (netio__der_take(&name, NETIO__DER_SET, &set))
        while (netio__der_take(&set, NETIO__DER_SEQUENCE, &part)) {
            if (!netio__der_take(&part, NETIO__DER_OID, &oid)) return at;
            if (!netio__der_next(&part, &tag, &value)) return at;
            if (at > begin) at = netio__text(buf, cap, at, ",", 1);
            at = netio__x509_kind(buf, cap, at, oid);
            at = netio__text(buf, cap, at, "=", 1);
            at = netio__x509_string(buf, cap, at, value, tag == 30);
        }
    return at;
}

// The next DNS name or address of subjectAltName. Returns its tag, 0x82 or 0x87; 0: there are no
// more.
static unsigned netio__x509_next_name(netio__der *names, netio__der *out)
{
    unsigned tag;
    while (netio__der_next(names, &tag, out))
        if (tag == 0x82 || (tag == 0x87 && (out->len == 4 || out->len == 16))) return tag;
    return 0;
}

static size_t netio__x509_one_name(char *buf, size_t cap, size_t at, unsigned tag, netio__der name)
{
    char text[NETIO_ADDR_TEXT];
    netio_addr a;
    if (tag == 0x82) return netio__x509_string(buf, cap, at, name, false);
    netio_addr_from_ip(&a, name.at, name.len, 0);
    netio_addr_format_host(&a, text, sizeof text);
    return netio__text_z(buf, cap, at, text);
}

// What to call a certificate in one word: its first name, else its subject's last part.
static void netio__x509_title(char *buf, size_t cap, const netio__x509 *x, bool issuer)
{
    netio__der names = x->names, one, rest = issuer ? x->issuer : x->subject, set;
    unsigned tag = issuer ? 0 : netio__x509_next_name(&names, &one);
    size_t at = 0;
    buf[0] = 0;
    if (tag) at = netio__x509_one_name(buf, cap, 0, tag, one);
    while (!tag && netio__der_take(&rest, NETIO__DER_SET, &set)) {
        netio__der part, oid, value;
        if (!netio__der_take(&set, NETIO__DER_SEQUENCE, &part)) break;
        if (!netio__der_take(&part, NETIO__DER_OID, &oid)) break;
        if (netio__der_next(&part, &tag, &value))
            at = netio__x509_string(buf, cap, 0, value, tag == 30);
        tag = 0;
    }
    if (at == 0) netio__text_z(buf, cap, 0, "(no name)");
}

//================================================================================================
// >>tls-name.c                                                        is it for the host we want?
//
// RFC 9525: subjectAltName only, never the subject's CN; addresses by their bytes, never as text; a
// wildcard is the whole left-most label, stands for exactly one label, and at least two follow it.
//================================================================================================

// A host as asked for: an address, or a name in lower case without a final dot.
typedef struct netio__tls_host {
    uint8_t ip[16];
    uint8_t ip_len; // 4, 16; 0: a name
    char name[254];
} netio__tls_host;

static bool netio__tls_host_label(const char *label, size_t len)
{
    if (len == 0 || len > 63) return false;
    for (size_t i = 0; i < len; i++) {
        char c = label[i];
        if (!netio__is_digit(c) && !(c >= 'a' && c <= 'z') && c != '-' && c != '_') return false;
    }
    return true;
}

// False: neither an address nor a host name (empty, spaces, '*', not ASCII, "1.2.3", too long).
static bool netio__tls_host_parse(netio__tls_host *h, const char *text, size_t len)
{
    netio_cidr ip;
    size_t at = 0, digits = 0;
    if (len > 2 && text[0] == '[' && text[len - 1] == ']') text++, len -= 2;
    memset(h, 0, sizeof *h);
    const char *zone = (const char *)memchr(text, '%', len);
    size_t ip_len = zone ? (size_t)(zone - text) : len;
    if (!memchr(text, '/', len) && netio_cidr_parse(&ip, text, ip_len) == 0) {
        memcpy(h->ip, ip.ip, 16);
        h->ip_len = ip.ip_len;
        netio__text(h->name, sizeof h->name, 0, text, ip_len);
        return true;
    }
    if (len > 1 && text[len - 1] == '.') len--;
    if (len == 0 || len >= sizeof h->name) return false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        h->name[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    for (;;) {
        const char *dot = strchr(h->name + at, '.');
        size_t n = dot ? (size_t)(dot - h->name) - at : len - at;
        if (!netio__tls_host_label(h->name + at, n)) return false;
        for (digits = 0; digits < n && netio__is_digit(h->name[at + digits]);) digits++;
        if (!dot) return digits < n; // a last label of digits alone would be an address somewhere
        at += n + 1;
    }
}

static bool netio__tls_same_text(const uint8_t *a, const char *lower, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = a[i] >= 'A' && a[i] <= 'Z' ? (uint8_t)(a[i] - 'A' + 'a') : a[i];
        if (c != (uint8_t)lower[i]) return false;
    }
    return true;
}

// `pattern` is any bytes from a certificate: what no host is called matches nothing.
static bool netio__tls_name_is(netio__der pattern, const netio__tls_host *h)
{
    const char *host = h->name, *dot;
    if (h->ip_len) return false;
    if (pattern.len > 2 && pattern.at[0] == '*' && pattern.at[1] == '.') {
        dot = strchr(host, '.');
        pattern.at++;
        pattern.len--;
        if (!dot || !memchr(pattern.at + 1, '.', pattern.len - 1)) return false;
        host = dot;
    }
    return pattern.len == strlen(host) && netio__tls_same_text(pattern.at, host, pattern.len);
}

static bool netio__tls_name_match(netio__der names, const netio__tls_host *h)
{
    netio__der one;
    unsigned tag;
    while ((tag = netio__x509_next_name(&names, &one)) != 0) {
        if (tag == 0x82 && netio__tls_name_is(one, h)) return true;
        if (tag == 0x87 && h->ip_len && netio__der_is(&one, h->ip, h->ip_len)) return true;
    }
    return false;
}

//================================================================================================
// >>tls-core.c                                             what every backend has, and is asked for
//
// A backend is one section that ends in a netio__tls_backend: `site` is the library's context with
// certificates, `native` its connection. It reads the peer's bytes with netio__tls_pull, whenever
// it wants and in any portions, and writes with netio__tls_push, which never blocks: back-pressure
// is applied before the library is asked to do anything. Libraries lose or repeat data where their
// output can be refused in the middle of a step.
//================================================================================================

enum {
    NETIO__TLS_OUT_MARK = 64 << 10, // no more is encrypted while this waits
    NETIO__TLS_OUT_MAX = 1 << 20,   // a peer makes us talk and does not read
    NETIO__TLS_IN_MAX = 1 << 20,    // fed and not read
    NETIO__TLS_FILE_MAX = 16 << 20, // certificates of one file
    NETIO__TLS_RECORDS_MAX = 32,    // records in a row that brought no data, after the handshake
    NETIO__TLS_HANDSHAKE_MAX = 64 << 10, // bytes of it, the peer's certificates not counted
    NETIO__TLS_SESSION_S = 12 * 3600,    // how long tickets are good; RFC 8446 allows 7 days
    NETIO__TLS_SEND = 16 << 10,          // most plain bytes of one record
    NETIO__TLS_WAIT_MS = 500,            // until one that waits looks whether the line moves
    NETIO__TLS_STEPS = 1,                // of handshakes in one turn of a loop
    NETIO__TLS_PACES = 16                // loops of which this is counted at a time
};

typedef struct netio__tls_site { // certificates that go out together
    void *native;
    uint8_t *names; // whom they are for: the contents of subjectAltName
    size_t names_len;
} netio__tls_site;

typedef struct netio__tls_ticket {
    uint8_t name[16], cipher_key[32], mac_key[32];
} netio__tls_ticket;

typedef struct netio__tls_pace { // handshakes of one loop: see netio__tls_filter_postpone
    const void *loop;
    uint64_t turn, stepped; // the one that is counted, the last in which a step was made
    unsigned steps;
    struct netio__tls_wait *first, *last; // the line of those that wait
} netio__tls_pace;

typedef struct netio__tls_saved { // a session of a client, in the context's list
    struct netio__tls_saved *next;
    void *session;         // the library's
    uint8_t owner[32];     // see netio__tls_owner
    int64_t end, cert_end; // of the session, and of the certificate that was checked for it
    bool once;             // RFC 8446 appendix C.4: a ticket of TLS 1.3 is for one connection
} netio__tls_saved;

struct netio_tls_ctx {
    const struct netio__tls_backend *be;
    netio_tls_config cfg; // what create only borrowed is NULL
    int refs;             // under netio__tls_lock, as all below `sites`
    uint8_t policy[32];   // digest of all that a session's peer was checked against
    uint8_t identity[32]; // digest of our certificates
    uint8_t *alpn;        // as on the wire: each with its length before it
    size_t alpn_len;
    uint8_t (*pins)[32];
    netio__tls_site *sites; // [0]: also for unknown names, and for clients
    size_t site_count;
    bool has_identity;
    bool system_waits; // the system's roots are needed if it becomes a client's
    netio__tls_ticket *tickets;
    size_t ticket_count;
    uint64_t tickets_ms; // when the first was made; 0: they are the user's
    netio__tls_saved *saved;
    netio__tls_pace pace[NETIO__TLS_PACES];
};

typedef struct netio__tls_queue { // bytes that wait, in the same block behind this; NULL: none
    size_t off, len, cap;
} netio__tls_queue;

typedef struct netio__tls_known { // what netio_tls_get_info shows, and has shown: it stays there
    netio_tls_cert *certs;
    size_t count;
    bool whole; // made after the handshake
    char alpn[256];
} netio__tls_known;

struct netio_tls {        // connections are many, so what few of them need lies elsewhere
    netio_tls_ctx *ctx;   // the one in effect: on_sni may have changed it
    netio_tls_ctx *first; // the one it was made with: its tickets
    void *native;         // the library's connection
    const uint8_t *in;    // lent bytes of the peer, after those in `spill`
    size_t in_len;
    netio__tls_queue *spill, *out;
    int (*emit)(void *arg, const void *data, size_t len); // in place of `out`; NULL: none
    void *emit_arg;
    char *name; // the peer's, or the one the client asked us for; NULL: none
    char *psk_identity;
    netio__tls_known *known;
    netio_tls_error *error;               // NULL: nothing to tell yet
    struct netio__tls_findings *findings; // the backend's, while it looks at the peer's chain
    struct netio__tls_wait *waits;        // for a turn of its loop: see netio__tls_filter_postpone
    int64_t cert_end;                     // when the peer's certificate expires
    uint32_t hello;                       // bytes of the handshake so far
    int refs;                             // of the filter
    int failed;                           // what every call returns from now on; 0: it did not
    int16_t alert_in, alert_out;          // as in netio_tls_error
    uint16_t record_left;                 // of the record that is being read
    uint8_t record_head[5], record_have;
    uint8_t useless;                 // records since the last data
    bool server, done, closed, shut; // handshake, the peer's close_notify, ours
    bool end, saw_end, end_told;     // the transport ended; the library noticed; the handler knows
    bool checked;                    // the peer's certificate or key was
};

// A chain of certificates, one allocation; the peer's own comes first.
typedef struct netio__tls_chain {
    netio_buf *certs;
    size_t count;
} netio__tls_chain;

// What the library found about a chain. `depth` is of the first finding of each bit.
typedef struct netio__tls_findings {
    unsigned bits;        // NETIO_TLS_EXPIRED, ...
    uint8_t depth[13];    // of each bit: where it was found first
    int code[13];         // the library's number for it; 0: found by netio
    const char *text[13]; // and its words
    int told;             // the number of the one that the sentence is about
    bool built;           // the chain is the one to a trusted root, not just what the peer sent
} netio__tls_findings;

// Calls return 0 or more, or NETIO_EAGAIN, NETIO_EOF (close_notify), NETIO_ENOMEM, or NETIO_ETLS
// with the record (t->error, *why) filled in as far as the backend knows.
typedef struct netio__tls_backend {
    int id;
    bool pairs; // one site can have certificates of several key types
    bool exact; // it pulls record by record, never bytes of the next one
    const char *(*text)(void);
    int (*random)(void *out, size_t len);
    int (*sha256)(uint8_t out[32], const void *data, size_t len);
    // A site of ctx->cfg; `first` (may be NULL) is one whose trust it shares.
    int (*site_open)(void **site, netio_tls_ctx *ctx, void *first, netio_tls_error *why);
    void (*site_close)(void *site);
    // Returns how many roots were added. system: what the library finds by itself.
    ptrdiff_t (*site_trust)(void *site, const void *data, size_t len);
    ptrdiff_t (*site_trust_system)(void *site);
    // A certificate with its chain and key, read and checked: `leaf` is lent until identity_close.
    // `files` has names for messages; `staple` may be empty.
    int (*identity_open)(void **id, netio_tls_ctx *ctx, netio_buf cert, netio_buf key,
                         const netio_tls_identity *files, netio_buf *leaf, netio_tls_error *why);
    int (*site_use)(void *site, void *id, netio_buf staple, netio_tls_error *why);
    void (*identity_close)(void *id);
    // One end of a connection; t->server, t->name and t->ctx are set.
    int (*open)(netio_tls *t, void *site);
    void (*close)(netio_tls *t);
    // A session, counted: read gives a new one or NULL, keep another reference, bytes are what read
    // takes (to be freed with bytes_free). What resume cannot use it ignores.
    void *(*session_read)(netio_tls *t, netio_buf bytes);
    int (*session_bytes)(void *session, netio_buf *out);
    void (*session_bytes_free)(netio_buf bytes);
    void (*session_keep)(void *session);
    void (*session_free)(void *session);
    int (*resume)(netio_tls *t, void *session);
    int (*handshake)(netio_tls *t);
    ptrdiff_t (*read)(netio_tls *t, void *buf, size_t cap);
    ptrdiff_t (*write)(netio_tls *t, const void *data, size_t len); // at most NETIO__TLS_SEND
    int (*shutdown)(netio_tls *t);
    // All but chain and names. psk_identity: not NULL if a pre-shared key was what both proved.
    void (*info)(netio_tls *t, netio_tls_info *out, netio_buf *alpn);
    int (*chain)(netio_tls *t, netio__tls_chain *out);
    int (*keying)(netio_tls *t, const char *label, const void *context, size_t context_len,
                  void *out, size_t len);
} netio__tls_backend;

#if NETIO__HAS_THREADS
static netio__os_mutex netio__tls_mutex = NETIO__OS_MUTEX_INIT;
static void netio__tls_lock(void) { netio__os_lock(&netio__tls_mutex); }
static void netio__tls_unlock(void) { netio__os_unlock(&netio__tls_mutex); }
#else
static void netio__tls_lock(void) {}
static void netio__tls_unlock(void) {}
#endif

// Call see(arg, path) for every file of a directory (NULL: none). Returns how many there are.
#if NETIO__WINDOWS
static ptrdiff_t netio__tls_each_file(const char *dir, void (*see)(void *arg, const char *path),
                                      void *arg)
{
    char path[1024];
    WIN32_FIND_DATAA found;
    ptrdiff_t count = 0;
    size_t n = netio__text_z(path, sizeof path, 0, dir);
    if (netio__text_z(path, sizeof path, n, "\\*") >= sizeof path) return 0;
    HANDLE h = FindFirstFileA(path, &found);
    if (h == INVALID_HANDLE_VALUE) return 0;
    do {
        if (found.cFileName[0] == '.') continue;
        size_t len = netio__text_z(path, sizeof path, n, "\\");
        len = netio__text_z(path, sizeof path, len, found.cFileName);
        if (see && len < sizeof path) see(arg, path);
        count++;
    } while (FindNextFileA(h, &found));
    FindClose(h);
    return count;
}
#else
static ptrdiff_t netio__tls_each_file(const char *dir, void (*see)(void *arg, const char *path),
                                      void *arg)
{
    char path[1024];
    ptrdiff_t count = 0;
    struct dirent *found;
    DIR *d = opendir(dir);
    if (!d) return 0;
    while ((found = readdir(d)) != NULL) {
        if (found->d_name[0] == '.') continue;
        size_t len =
            netio__text_z(path, sizeof path, netio__text_z(path, sizeof path, 0, dir), "/");
        len = netio__text_z(path, sizeof path, len, found->d_name);
        if (see && len < sizeof path) see(arg, path);
        count++;
    }
    closedir(d);
    return count;
}
#endif

// --- bytes in and out ---------------------------------------------------------------------------

static size_t netio__tls_queue_len(const netio__tls_queue *q) { return q ? q->len : 0; }

static uint8_t *netio__tls_queue_data(const netio__tls_queue *q)
{
    return (uint8_t *)(uintptr_t)(q + 1) + q->off;
}

static int netio__tls_queue_put(netio__tls_queue **queue, const void *data, size_t len)
{
    netio__tls_queue *q = *queue;
    size_t had = netio__tls_queue_len(q);
    if (len == 0) return 0;
    if (!q || len > q->cap - q->off - had) {
        if (len > SIZE_MAX / 4 - had) return NETIO_ENOMEM;
        size_t cap = had + len < 2048 ? 2048 : (had + len) + (had + len) / 2;
        q = (netio__tls_queue *)NETIO_MALLOC(sizeof *q + cap);
        if (!q) return NETIO_ENOMEM;
        q->off = 0;
        q->len = had;
        q->cap = cap;
        if (had) memcpy(q + 1, netio__tls_queue_data(*queue), had);
        NETIO_FREE(*queue);
        *queue = q;
    }
    memcpy(netio__tls_queue_data(q) + had, data, len);
    q->len = had + len;
    return 0;
}

static void netio__tls_queue_drop(netio__tls_queue **queue, size_t len)
{
    netio__tls_queue *q = *queue;
    q->off += len;
    q->len -= len;
    if (q->len) return;
    NETIO_FREE(q); // idle connections are many: an empty queue is none
    *queue = NULL;
}

// The bytes of a queue alone, to be freed; the queue is gone. From one that is empty: NULL.
static uint8_t *netio__tls_queue_take(netio__tls_queue **queue)
{
    netio__tls_queue *q = *queue;
    if (!q) return NULL;
    size_t len = q->len;
    memmove(q, netio__tls_queue_data(q), len);
    netio__tls_wipe((uint8_t *)q + len, sizeof *q); // where they were: it may be a key
    *queue = NULL;
    return (uint8_t *)q;
}

// The record of `t`, made when there is something to tell. NULL: there is no memory for it.
static netio_tls_error *netio__tls_error_of(netio_tls *t)
{
    if (t->error) return t->error;
    t->error = (netio_tls_error *)NETIO_MALLOC(sizeof *t->error);
    netio__tls_error_clear(t->error);
    return t->error;
}

// The same, with what is wrong with the peer's certificate.
static netio_tls_error *netio__tls_blame(netio_tls *t, unsigned verify)
{
    netio_tls_error *e = netio__tls_error_of(t);
    if (e) e->verify = verify;
    return e;
}

// The end of `t`. What a callback of the library found out first is not overwritten by what the
// library makes of it.
static int netio__tls_fail(netio_tls *t, int err)
{
    if (!t->failed) t->failed = err;
    return t->failed;
}

static int netio__tls_limit(netio_tls *t, const char *text)
{
    if (t->failed) return t->failed;
    return netio__tls_fail(
        t, netio__tls_say(netio__tls_error_of(t), NETIO_TLS_LIMIT, text, NETIO__TLS_END));
}

static int netio__tls_not_tls(netio_tls *t, const uint8_t *p, size_t n)
{
    char seen[24];
    size_t at = 0;
    seen[0] = 0;
    for (size_t i = 0; i < n && i < 16; i++)
        at = netio__text(seen, sizeof seen, at,
                         p[i] >= ' ' && p[i] < 127 ? (const char *)p + i : ".", 1);
    return netio__tls_fail(t, netio__tls_say(netio__tls_error_of(t), NETIO_TLS_PROTOCOL,
                                             "the peer does not speak TLS, its first "
                                             "bytes are \"",
                                             seen, "\": plain text, or another port?",
                                             NETIO__TLS_END));
}

// Watch the records that pass. (In one pass with the copy, as the bytes are hot.)
static int netio__tls_watch(netio_tls *t, const uint8_t *p, size_t n)
{
    if (!t->done &&
        (t->hello += (uint32_t)n) > t->ctx->cfg.peer_chain_max + NETIO__TLS_HANDSHAKE_MAX)
        return netio__tls_limit(t, "the peer's handshake is too long: see peer_chain_max");
    while (n) {
        size_t k = t->record_left < n ? t->record_left : n;
        t->record_left = (uint16_t)(t->record_left - k);
        p += k;
        n -= k;
        if (k && t->record_left == 0) t->useless++;
        while (n && t->record_left == 0 && t->record_have < 5) {
            t->record_head[t->record_have++] = *p++;
            n--;
        }
        if (t->record_have == 5) {
            t->record_have = 0;
            t->record_left = (uint16_t)(t->record_head[3] << 8 | t->record_head[4]);
            if (t->record_left == 0) t->useless++;
        }
        if (!t->done) t->useless = 0;
        if (t->useless > NETIO__TLS_RECORDS_MAX)
            return netio__tls_limit(t, "the peer sends records without data");
    }
    return 0;
}

// Returns bytes; 0: the transport has ended; NETIO_EAGAIN: none now; NETIO_ETLS: over.
static ptrdiff_t netio__tls_pull(netio_tls *t, void *buf, size_t cap)
{
    const uint8_t *from = t->spill ? netio__tls_queue_data(t->spill) : t->in;
    size_t have = t->spill ? t->spill->len : t->in_len, n = have < cap ? have : cap;
    if (t->failed) return t->failed;
    if (have == 0) {
        if (t->end) t->saw_end = true;
        return t->end ? 0 : NETIO_EAGAIN;
    }
    if (n == 0) return 0;
    // A first record that is neither a handshake's nor an alert's.
    if (t->hello == 0 && *from != 22 && *from != 21) return netio__tls_not_tls(t, from, have);
    int err = netio__tls_watch(t, from, n);
    if (err < 0) return err;
    memcpy(buf, from, n);
    if (t->spill) {
        netio__tls_queue_drop(&t->spill, n);
    } else {
        t->in += n;
        t->in_len -= n;
    }
    return (ptrdiff_t)n;
}

// Returns 0; NETIO_ENOMEM, or what the filter's connection says: over.
static int netio__tls_push(netio_tls *t, const void *data, size_t len)
{
    int err = t->emit ? t->emit(t->emit_arg, data, len)
              : netio__tls_queue_len(t->out) + len > NETIO__TLS_OUT_MAX
                  ? netio__tls_limit(t, "the peer makes us answer and does not read")
                  : netio__tls_queue_put(&t->out, data, len);
    return err < 0 ? netio__tls_fail(t, err) : 0;
}

// --- what the library asks of a server ----------------------------------------------------------

static char *netio__tls_copy_text(const char *text, size_t len)
{
    char *copy = (char *)NETIO_MALLOC(len + 1);
    if (!copy) return NULL;
    memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

// The client asks for `name`: which site is it? A name that is none is as if it had not asked; a
// second hello of the same client changes nothing. `*site` NULL: the one it has.
// Returns 0; NETIO_ENOMEM; NETIO_ETLS
static int netio__tls_choose(netio_tls *t, const void *name, size_t len, void **site)
{
    netio__tls_host host;
    netio_tls_ctx *ctx = t->first, *other = NULL;
    *site = NULL;
    if (t->name || !netio__tls_host_parse(&host, (const char *)name, len) || host.ip_len) return 0;
    t->name = netio__tls_copy_text(host.name, strlen(host.name));
    if (!t->name) return netio__tls_fail(t, NETIO_ENOMEM);
    if (ctx->cfg.on_sni) other = ctx->cfg.on_sni(ctx->cfg.user, t->name);
    if (other && other != ctx) {
        if (other->be != ctx->be || !(other->has_identity || other->cfg.psk))
            return netio__tls_fail(
                t, netio__tls_say(netio__tls_error_of(t), NETIO_TLS_CONFIG, "on_sni gave for ",
                                  t->name, " a context without a certificate", NETIO__TLS_END));
        netio_tls_ctx_ref(other);
        if (t->ctx != t->first) netio_tls_ctx_unref(t->ctx);
        t->ctx = ctx = other;
    }
    *site = ctx->sites[0].native;
    for (size_t i = 0; i < ctx->site_count; i++) {
        netio__der names;
        names.at = ctx->sites[i].names;
        names.len = ctx->sites[i].names_len;
        if (!netio__tls_name_match(names, &host)) continue;
        *site = ctx->sites[i].native;
        break;
    }
    return 0;
}

// Keys for tickets. `name` NULL: the one that seals. Returns 0: unknown; 1: yes; 2: yes, but the
// ticket should be replaced by a new one; below 0: an error.
static int netio__tls_ticket_key(netio_tls_ctx *ctx, const uint8_t *name, netio__tls_ticket *out)
{
    int found = 0;
    netio__tls_lock();
    uint64_t now = netio_now_ms();
    if (ctx->tickets_ms && now - ctx->tickets_ms >= 1000u * NETIO__TLS_SESSION_S) {
        // The one before opens for as long as what it sealed is good, at most.
        if (now - ctx->tickets_ms < 2000u * NETIO__TLS_SESSION_S) ctx->tickets[1] = ctx->tickets[0];
        else found = ctx->be->random(&ctx->tickets[1], sizeof ctx->tickets[1]);
        if (found == 0) found = ctx->be->random(&ctx->tickets[0], sizeof ctx->tickets[0]);
        if (found == 0) ctx->tickets_ms = now;
    }
    for (size_t i = 0; i < ctx->ticket_count && found == 0; i++)
        if (!name || memcmp(name, ctx->tickets[i].name, sizeof out->name) == 0) {
            *out = ctx->tickets[i];
            found = i == 0 ? 1 : 2;
        }
    netio__tls_unlock();
    return found;
}

// The key of a client that names itself, or ours and our name. Returns its length; 0: none.
static size_t netio__tls_psk(netio_tls *t, char *identity, size_t identity_cap, uint8_t *key,
                             size_t cap)
{
    const netio_tls_config *cfg = &t->ctx->cfg;
    if (!cfg->psk) return 0; // on_sni chose a context without
    int n = cfg->psk(cfg->user, identity, identity_cap, key, cap);
    if (n > 0 && (size_t)n <= cap && identity[0]) {
        char *copy = netio__tls_copy_text(identity, strlen(identity));
        if (!copy) return 0;
        NETIO_FREE(t->psk_identity);
        t->psk_identity = copy;
        return (size_t)n;
    }
    // Who has no certificate to go on with answers an unknown name like a wrong key, so that nobody
    // can find out which names exist.
    if (!t->server || t->ctx->has_identity || cap < 32 || t->ctx->be->random(key, 32) < 0) return 0;
    return 32;
}

//================================================================================================
// >>tls-verify.c                                                    who is the peer, and may it be?
//
// Called by the backend from inside the handshake, so that the right alert goes out and nothing is
// sent to a peer that was not verified. The library built the chain and reports what it found; all
// that libraries are known to let pass is judged here. The findings can only grow in number; then
// those are left out that an insecure_ field names.
//================================================================================================

static unsigned netio__tls_index(unsigned bit)
{
    unsigned index = 0;
    while (bit >> (index + 1)) index++;
    return index;
}

static void netio__tls_find(netio__tls_findings *f, unsigned bit, size_t depth)
{
    if (f->bits & bit) return;
    f->bits |= bit;
    f->depth[netio__tls_index(bit)] = (uint8_t)(depth < 255 ? depth : 255);
}

static bool netio__tls_same_bytes(const uint8_t *a, const uint8_t *b, size_t len) // constant time
{
    unsigned differ = 0;
    for (size_t i = 0; i < len; i++) differ |= (unsigned)(a[i] ^ b[i]);
    return differ == 0;
}

static void netio__tls_check_strength(netio__tls_findings *f, const netio__x509 *x, size_t depth)
{
    bool rsa;
    size_t bits = netio__x509_key_bits(x, &rsa);
    if (rsa ? bits < 2048 : bits > 0 && bits < 224) netio__tls_find(f, NETIO_TLS_WEAK, depth);
    // Nobody relies on a root's signature of itself.
    if (!netio__x509_self_issued(x) && netio__x509_weak_signature(x))
        netio__tls_find(f, NETIO_TLS_WEAK, depth);
}

// A chain that was not built is only what the peer sent: others' certificates may be in it, so only
// its own key counts.
static int netio__tls_check_pins(netio_tls *t, netio__tls_findings *f,
                                 const netio__tls_chain *chain)
{
    size_t count = f->built ? chain->count : 1;
    for (size_t i = 0; i < count; i++) {
        netio__x509 x;
        uint8_t digest[32];
        if (!netio__x509_parse(&x, chain->certs[i].data, chain->certs[i].len)) continue;
        int err = t->ctx->be->sha256(digest, x.spki.at, x.spki.len);
        if (err < 0) return err;
        for (size_t p = 0; p < t->ctx->cfg.pin_count; p++)
            if (netio__tls_same_bytes(digest, t->ctx->pins[p], 32)) return 0;
    }
    netio__tls_find(f, NETIO_TLS_PIN, 0);
    return 0;
}

// The words for what is weak about a certificate.
static void netio__tls_weak_say(netio_tls_error *e, const char *title, const netio__x509 *x)
{
    char number[16];
    bool rsa;
    size_t bits = netio__x509_key_bits(x, &rsa);
    netio__text_uint(number, sizeof number, 0, (unsigned)bits, 10);
    if (rsa ? bits < 2048 : bits > 0 && bits < 224)
        netio__tls_say(e, NETIO_TLS_VERIFY, "certificate of ", title, ": its key of ", number,
                       " bits is too short", NETIO__TLS_END);
    else
        netio__tls_say(e, NETIO_TLS_VERIFY, "certificate of ", title, " is signed with a broken ",
                       "hash (SHA-1, MD5), or too weak", NETIO__TLS_END);
}

static void netio__tls_name_say(netio_tls *t, const netio__x509 *leaf)
{
    char list[80];
    netio__der names = leaf->names, one;
    unsigned tag;
    size_t at = 0;
    list[0] = 0;
    while ((tag = netio__x509_next_name(&names, &one)) != 0 && at < sizeof list) {
        if (at) at = netio__text(list, sizeof list, at, ", ", 2);
        at = netio__x509_one_name(list, sizeof list, at, tag, one);
    }
    if (at >= sizeof list) memcpy(list + sizeof list - 4, "...", 4);
    netio__tls_say(netio__tls_error_of(t), NETIO_TLS_VERIFY, "certificate is for ",
                   at ? list : "no name at all", ", not for ", t->name, NETIO__TLS_END);
}

static void netio__tls_untrusted_say(netio_tls_error *e, const char *title, const netio__x509 *x,
                                     size_t depth)
{
    char issuer[64];
    netio__x509_title(issuer, sizeof issuer, x, true);
    if (!netio__x509_self_issued(x))
        netio__tls_say(e, NETIO_TLS_VERIFY, "certificate of ", title, ": its issuer ", issuer,
                       " is unknown; give it as ca, or the peer left out an intermediate",
                       NETIO__TLS_END);
    else if (depth == 0)
        netio__tls_say(e, NETIO_TLS_VERIFY, "certificate of ", title,
                       " is self-signed: give it as ca if it is the right one", NETIO__TLS_END);
    else
        netio__tls_say(e, NETIO_TLS_VERIFY, "the chain ends in CA ", title,
                       ", which is not trusted: give it as ca if it should be", NETIO__TLS_END);
}

// One sentence for the most telling of the findings, and what to do about it.
static void netio__tls_verify_say(netio_tls *t, netio__tls_findings *f, unsigned bits,
                                  const netio__tls_chain *chain)
{
    static const unsigned order[] = {NETIO_TLS_UNTRUSTED,  NETIO_TLS_BAD_SIG, NETIO_TLS_EXPIRED,
                                     NETIO_TLS_NOT_YET,    NETIO_TLS_REVOKED, NETIO_TLS_NAME,
                                     NETIO_TLS_CONSTRAINT, NETIO_TLS_PURPOSE, NETIO_TLS_WEAK,
                                     NETIO_TLS_PIN,        NETIO_TLS_REFUSED, NETIO_TLS_OTHER};
    netio_tls_error *e = netio__tls_blame(t, bits);
    netio__x509 x;
    char title[64], date[16], at[8];
    size_t i = 0;
    while (!(bits & order[i])) i++;
    // Where keys were agreed on, nothing about the certificate would help.
    while (t->ctx->cfg.psk && !t->server && order[i] != NETIO_TLS_REFUSED) i++;
    unsigned index = netio__tls_index(order[i]);
    size_t depth = f->depth[index];
    size_t place = depth < chain->count ? depth : chain->count - 1;
    netio__x509_parse(&x, chain->certs[place].data, chain->certs[place].len);
    netio__x509_title(title, sizeof title, &x, false);
    netio__text_uint(at, sizeof at, 0, (unsigned)depth, 10);
    if (!e) return;
    e->depth = (int)depth;
    e->backend_code = f->told = f->code[index];
    switch (order[i]) {
    case NETIO_TLS_UNTRUSTED: netio__tls_untrusted_say(e, title, &x, depth); break;
    case NETIO_TLS_NAME: netio__tls_name_say(t, &x); break;
    case NETIO_TLS_WEAK: netio__tls_weak_say(e, title, &x); break;
    case NETIO_TLS_EXPIRED:
    case NETIO_TLS_NOT_YET:
        netio__tls_date(date, order[i] == NETIO_TLS_EXPIRED ? x.not_after : x.not_before);
        netio__tls_say(e, NETIO_TLS_VERIFY, "certificate of ", title,
                       order[i] == NETIO_TLS_EXPIRED ? " expired on " : " is not valid before ",
                       date, " (depth ", at, "), by this machine's clock", NETIO__TLS_END);
        break;
    case NETIO_TLS_PURPOSE:
        netio__tls_say(e, NETIO_TLS_VERIFY, "certificate of ", title,
                       depth       ? " is no CA's, but signed another one"
                       : t->server ? " is not for TLS clients (extended key usage)"
                                   : " is not for TLS servers (extended key usage)",
                       NETIO__TLS_END);
        break;
    case NETIO_TLS_PIN:
        netio__tls_say(e, NETIO_TLS_VERIFY, "no key in the chain of ", title, " is pinned",
                       NETIO__TLS_END);
        break;
    case NETIO_TLS_REFUSED:
        netio__tls_say(e, NETIO_TLS_VERIFY, "certificate of ", title, " was refused by ",
                       t->ctx->cfg.psk ? "us: a pre-shared key was agreed on" : "on_verify",
                       NETIO__TLS_END);
        break;
    default:
        netio__tls_say(e, NETIO_TLS_VERIFY, "certificate of ", title, ": ",
                       f->text[index] ? f->text[index] : "not acceptable", NETIO__TLS_END);
    }
}

// --- the peer, as the user sees it --------------------------------------------------------------

// Subject, issuer and names one after another, each with its NUL. Returns the room that they need.
static size_t netio__tls_cert_texts(netio_tls_cert *c, const netio__x509 *x, char *text, size_t cap,
                                    const char **names)
{
    netio__der list = x->names, one;
    unsigned tag;
    c->subject = text;
    size_t at = netio__text(text, cap, netio__x509_name(text, cap, 0, x->subject), "", 1);
    c->issuer = text + (at < cap ? at : 0);
    at = netio__text(text, cap, netio__x509_name(text, cap, at, x->issuer), "", 1);
    for (c->name_count = 0; (tag = netio__x509_next_name(&list, &one)) != 0; c->name_count++) {
        if (names) names[c->name_count] = text + at;
        at = netio__text(text, cap, netio__x509_one_name(text, cap, at, tag, one), "", 1);
    }
    return at;
}

// One block holds the names, the bytes and the texts.
static int netio__tls_cert_make(netio_tls_cert *c, netio_tls *t, netio_buf der)
{
    netio__x509 x;
    char none[1] = {0};
    if (!netio__x509_parse(&x, der.data, der.len)) return NETIO_EPROTO;
    size_t text_len = netio__tls_cert_texts(c, &x, none, 0, NULL);
    size_t names_len = (c->name_count + 1) * sizeof(char *);
    uint8_t *block = (uint8_t *)NETIO_MALLOC(names_len + der.len + text_len);
    if (!block) return NETIO_ENOMEM;
    const char **names = (const char **)(void *)block;
    uint8_t *copy = block + names_len;
    memcpy(copy, der.data, der.len);
    netio__tls_cert_texts(c, &x, (char *)copy + der.len, text_len, names);
    c->names = names;
    c->der.data = copy;
    c->der.len = der.len;
    c->serial.data = copy + (x.serial.at - (const uint8_t *)der.data);
    c->serial.len = x.serial.len;
    c->not_before = x.not_before;
    c->not_after = x.not_after;
    int err = t->ctx->be->sha256(c->sha256, der.data, der.len);
    if (err == 0) err = t->ctx->be->sha256(c->spki_sha256, x.spki.at, x.spki.len);
    if (err < 0) NETIO_FREE(block);
    return err;
}

static void netio__tls_known_free(netio__tls_known *k)
{
    if (!k) return;
    for (size_t i = 0; i < k->count; i++) NETIO_FREE((void *)(uintptr_t)k->certs[i].names);
    NETIO_FREE(k->certs);
    NETIO_FREE(k);
}

static int netio__tls_know(netio__tls_known **out, netio_tls *t, const netio__tls_chain *chain)
{
    netio__tls_known *k = (netio__tls_known *)NETIO_MALLOC(sizeof *k);
    int err = 0;
    if (!k) return NETIO_ENOMEM;
    memset(k, 0, sizeof *k);
    if (chain->count) {
        k->certs = (netio_tls_cert *)NETIO_MALLOC(chain->count * sizeof *k->certs);
        if (!k->certs) err = NETIO_ENOMEM;
        for (size_t i = 0; i < chain->count && err == 0; i++) {
            memset(&k->certs[i], 0, sizeof k->certs[i]);
            err = netio__tls_cert_make(&k->certs[i], t, chain->certs[i]);
            if (err == 0) k->count++;
        }
    }
    if (err == 0) *out = k;
    else netio__tls_known_free(k);
    return err;
}

static void netio__tls_show(netio_tls *t, netio__tls_known *k, netio_tls_info *out)
{
    netio_buf alpn = {NULL, 0};
    memset(out, 0, sizeof *out);
    out->version_text = out->cipher = "";
    t->ctx->be->info(t, out, &alpn);
    if (alpn.len) memcpy(k->alpn, alpn.data, alpn.len < 255 ? alpn.len : 255);
    if (t->psk_identity) out->resumed = false; // which is how libraries see it
    out->alpn = k->alpn;
    out->server_name = t->name ? t->name : "";
    out->psk_identity = t->psk_identity && t->done ? t->psk_identity : "";
    out->chain = k->count ? k->certs : NULL;
    out->chain_len = k->count;
}

static int netio__tls_ask_user(netio_tls *t, netio__tls_findings *f, const netio__tls_chain *chain)
{
    netio__tls_known *k;
    netio_tls_info info;
    int err = netio__tls_know(&k, t, chain);
    if (err < 0) return err;
    netio__tls_show(t, k, &info);
    if (!t->ctx->cfg.on_verify(t->ctx->cfg.user, &info)) netio__tls_find(f, NETIO_TLS_REFUSED, 0);
    netio__tls_known_free(k);
    return 0;
}

// --- the verdict --------------------------------------------------------------------------------

// Returns 0: let it in; NETIO_ETLS with the record filled in: send an alert; NETIO_ENOMEM.
static int netio__tls_verify(netio_tls *t, netio__tls_findings *f, const netio__tls_chain *chain)
{
    const netio_tls_config *cfg = &t->ctx->cfg;
    netio__tls_host host;
    netio__x509 x, leaf;
    unsigned waived = 0;
    if (cfg->insecure_no_name) waived |= NETIO_TLS_NAME;
    if (cfg->insecure_no_time) waived |= NETIO_TLS_EXPIRED | NETIO_TLS_NOT_YET;
    if (cfg->insecure_no_chain)
        waived |= NETIO_TLS_UNTRUSTED | NETIO_TLS_CONSTRAINT | NETIO_TLS_BAD_SIG | NETIO_TLS_OTHER;
    int err = 0;
    memset(&leaf, 0, sizeof leaf);
    for (size_t i = 0; i < chain->count; i++) {
        if (!netio__x509_parse(&x, chain->certs[i].data, chain->certs[i].len)) {
            netio_tls_error *e = netio__tls_blame(t, NETIO_TLS_OTHER);
            return netio__tls_fail(t, netio__tls_say(e, NETIO_TLS_VERIFY,
                                                     "a certificate of the peer is malformed",
                                                     NETIO__TLS_END));
        }
        netio__tls_check_strength(f, &x, i);
        if (i == 0) leaf = x;
    }
    int64_t now = netio__tls_time(cfg);
    if (now > leaf.not_after) netio__tls_find(f, NETIO_TLS_EXPIRED, 0);
    if (now < leaf.not_before) netio__tls_find(f, NETIO_TLS_NOT_YET, 0);
    if (!netio__x509_serves(&leaf, !t->server)) netio__tls_find(f, NETIO_TLS_PURPOSE, 0);
    if (!t->server && (!t->name || !netio__tls_host_parse(&host, t->name, strlen(t->name)) ||
                       !netio__tls_name_match(leaf.names, &host)))
        netio__tls_find(f, NETIO_TLS_NAME, 0);
    if (!t->server && cfg->psk) netio__tls_find(f, NETIO_TLS_REFUSED, 0);
    if (cfg->pin_count) err = netio__tls_check_pins(t, f, chain);
    if (err == 0 && !(f->bits & ~waived) && cfg->on_verify) err = netio__tls_ask_user(t, f, chain);
    if (err < 0) return netio__tls_fail(t, err);
    t->checked = !(f->bits & ~waived);
    t->cert_end = leaf.not_after;
    if (t->checked) return 0;
    netio__tls_verify_say(t, f, f->bits & ~waived, chain);
    return netio__tls_fail(t, NETIO_ETLS);
}

//================================================================================================
// >>tls-session.c                                                   sessions, and whose they are
//
// A resumed session skips every check of the peer: libraries accept one for another host, or one
// that was never verified. So each is kept with a digest of the context's policy, of our
// certificates and of the host, and with the time when it or the peer's certificate ends. The user
// gets it wrapped in the same, with a checksum over all. One that does not fit is left aside, and a
// full handshake made.
//================================================================================================

enum { NETIO__TLS_BLOB_HEAD = 4 + 8 + 8 + 32, NETIO__TLS_BLOB_SUM = 32 };

static void netio__tls_put64(uint8_t *p, int64_t value)
{
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)((uint64_t)value >> (56 - 8 * i));
}

static int64_t netio__tls_get64(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | p[i];
    return (int64_t)value;
}

static int netio__tls_owner(uint8_t out[32], const netio_tls *t)
{
    uint8_t all[64 + 256];
    size_t len = strlen(t->name);
    memcpy(all, t->ctx->policy, 32);
    memcpy(all + 32, t->ctx->identity, 32);
    memcpy(all + 64, t->name, len); // at most 253, see netio__tls_host
    return t->ctx->be->sha256(out, all, 64 + len);
}

// Only what the checks of this context have seen is worth resuming.
static bool netio__tls_resumes(const netio_tls *t)
{
    const netio_tls_config *cfg = &t->ctx->cfg;
    return !t->server && t->name && !cfg->no_tickets && !cfg->psk && !cfg->insecure_no_chain &&
           !cfg->insecure_no_name && !cfg->insecure_no_time;
}

static void netio__tls_saved_free(const netio_tls_ctx *ctx, netio__tls_saved *s)
{
    ctx->be->session_free(s->session);
    NETIO_FREE(s);
}

// Under the lock.
static void netio__tls_saved_trim(netio_tls_ctx *ctx, size_t keep)
{
    netio__tls_saved **at = &ctx->saved;
    while (*at && keep--) at = &(*at)->next;
    while (*at) {
        netio__tls_saved *old = *at;
        *at = old->next;
        netio__tls_saved_free(ctx, old);
    }
}

// The user's copy.
static void netio__tls_session_tell(netio_tls *t, const netio__tls_saved *s)
{
    const netio_tls_config *cfg = &t->ctx->cfg;
    netio_buf session;
    if (t->ctx->be->session_bytes(s->session, &session) < 0) return;
    size_t len = NETIO__TLS_BLOB_HEAD + session.len + NETIO__TLS_BLOB_SUM;
    uint8_t *blob = (uint8_t *)NETIO_MALLOC(len);
    if (blob) {
        memcpy(blob, "NTS1", 4);
        netio__tls_put64(blob + 4, s->end);
        netio__tls_put64(blob + 12, s->cert_end);
        memcpy(blob + 20, s->owner, sizeof s->owner);
        memcpy(blob + NETIO__TLS_BLOB_HEAD, session.data, session.len);
        if (t->ctx->be->sha256(blob + len - 32, blob, len - 32) == 0)
            cfg->on_session(cfg->user, t->name, blob, len);
        netio__tls_wipe(blob, len);
        NETIO_FREE(blob);
    }
    t->ctx->be->session_bytes_free(session);
}

// A session came from the server. `lifetime_s` is how long the server promises to remember it.
static void netio__tls_session_came(netio_tls *t, void *session, int64_t lifetime_s, bool once)
{
    netio_tls_ctx *ctx = t->ctx;
    if (!t->checked || !netio__tls_resumes(t)) return;
    netio__tls_saved *s = (netio__tls_saved *)NETIO_MALLOC(sizeof *s);
    if (!s) return; // the next connection makes a full handshake
    if (lifetime_s > 2 * NETIO__TLS_SESSION_S) lifetime_s = 2 * NETIO__TLS_SESSION_S;
    s->end = netio__tls_time(&ctx->cfg) + lifetime_s;
    s->cert_end = t->cert_end;
    s->once = once;
    s->session = session;
    ctx->be->session_keep(session);
    if (netio__tls_owner(s->owner, t) < 0) {
        netio__tls_saved_free(ctx, s);
        return;
    }
    if (ctx->cfg.on_session) netio__tls_session_tell(t, s);
    netio__tls_lock();
    s->next = ctx->saved;
    ctx->saved = s;
    netio__tls_saved_trim(ctx, ctx->cfg.session_max);
    netio__tls_unlock();
}

static int netio__tls_session_set(netio_tls *t, void *session, int64_t end, int64_t cert_end)
{
    int64_t now = netio__tls_time(&t->ctx->cfg);
    if (now >= end || now >= cert_end) return 0;
    t->cert_end = cert_end;
    return t->ctx->be->resume(t, session);
}

// Hand a wrapped session of the user's to the library if it is one for this connection.
static int netio__tls_session_use(netio_tls *t, const void *data, size_t len)
{
    const uint8_t *blob = (const uint8_t *)data;
    uint8_t digest[32];
    netio_buf bytes;
    if (!netio__tls_resumes(t) || len < NETIO__TLS_BLOB_HEAD + NETIO__TLS_BLOB_SUM) return 0;
    if (memcmp(blob, "NTS1", 4) != 0) return 0;
    int err = t->ctx->be->sha256(digest, blob, len - 32);
    if (err < 0 || !netio__tls_same_bytes(digest, blob + len - 32, 32)) return err;
    err = netio__tls_owner(digest, t);
    if (err < 0 || !netio__tls_same_bytes(digest, blob + 20, 32)) return err;
    bytes.data = blob + NETIO__TLS_BLOB_HEAD;
    bytes.len = len - NETIO__TLS_BLOB_HEAD - NETIO__TLS_BLOB_SUM;
    void *session = t->ctx->be->session_read(t, bytes);
    if (!session) return 0;
    err =
        netio__tls_session_set(t, session, netio__tls_get64(blob + 4), netio__tls_get64(blob + 12));
    t->ctx->be->session_free(session);
    return err;
}

// The newest session that the context has for this connection.
static int netio__tls_session_find(netio_tls *t)
{
    netio__tls_saved **at, found;
    uint8_t owner[32];
    int err = netio__tls_resumes(t) ? netio__tls_owner(owner, t) : NETIO_ENOENT;
    if (err < 0) return err == NETIO_ENOENT ? 0 : err;
    netio__tls_lock();
    for (at = &t->ctx->saved; *at && memcmp((*at)->owner, owner, 32) != 0;) at = &(*at)->next;
    netio__tls_saved *s = *at;
    if (s) {
        found = *s;
        t->ctx->be->session_keep(s->session);
        if (s->once) {
            *at = s->next;
            netio__tls_saved_free(t->ctx, s);
        }
    }
    netio__tls_unlock();
    if (!s) return 0;
    err = netio__tls_session_set(t, found.session, found.end, found.cert_end);
    t->ctx->be->session_free(found.session);
    return err;
}

#if NETIO__TLS_HAS_OPENSSL
//================================================================================================
// >>tls-openssl.c                                backend: OpenSSL, LibreSSL, BoringSSL, AWS-LC
//
// One BIO of our own per connection: it reads where the received bytes lie and writes to the
// engine's output, without a buffer between. The error queue belongs to the thread, so it is
// emptied before every call: an old entry of another connection would end this one.
//================================================================================================

#if defined(OPENSSL_IS_BORINGSSL) || defined(OPENSSL_IS_AWSLC)
#define NETIO__OSSL_BORING 1
#else
#define NETIO__OSSL_BORING 0
#endif
#if defined(LIBRESSL_VERSION_NUMBER)
#define NETIO__OSSL_LIBRE 1
#else
#define NETIO__OSSL_LIBRE 0
#endif
#if !NETIO__OSSL_BORING && !NETIO__OSSL_LIBRE
#define NETIO__OSSL_TRUE 1
#else
#define NETIO__OSSL_TRUE 0
#endif
#if NETIO__OSSL_TRUE && OPENSSL_VERSION_NUMBER >= 0x30000000L
#define NETIO__OSSL_3 1
#else
#define NETIO__OSSL_3 0
#endif
#if NETIO__OSSL_BORING // which counts in size_t what others count in int and long
typedef size_t netio__ossl_int;
typedef size_t netio__ossl_long;
typedef uint32_t netio__ossl_code;
#define NETIO__OSSL_GROUPS SSL_CTX_set1_curves_list
#else
typedef int netio__ossl_int;
typedef long netio__ossl_long;
typedef unsigned long netio__ossl_code;
#define NETIO__OSSL_GROUPS SSL_CTX_set1_groups_list
#endif
#if NETIO__OSSL_3
#include <openssl/core_names.h>
#endif
#ifndef SSL_OP_NO_RENEGOTIATION
#define NETIO__OSSL_NO_RENEGOTIATION 0 // BoringSSL: never does
#else
#define NETIO__OSSL_NO_RENEGOTIATION SSL_OP_NO_RENEGOTIATION
#endif
#ifndef SSL_OP_NO_CLIENT_RENEGOTIATION
#define NETIO__OSSL_NO_CLIENT_RENEGOTIATION 0 // LibreSSL only
#else
#define NETIO__OSSL_NO_CLIENT_RENEGOTIATION SSL_OP_NO_CLIENT_RENEGOTIATION
#endif

#if defined(X509_V_ERR_EE_KEY_TOO_SMALL)
#define NETIO__OSSL_EE_KEY_TOO_SMALL X509_V_ERR_EE_KEY_TOO_SMALL
#define NETIO__OSSL_CA_KEY_TOO_SMALL X509_V_ERR_CA_KEY_TOO_SMALL
#define NETIO__OSSL_CA_MD_TOO_WEAK X509_V_ERR_CA_MD_TOO_WEAK
#else // the forks have no security levels
#define NETIO__OSSL_EE_KEY_TOO_SMALL (-1001)
#define NETIO__OSSL_CA_KEY_TOO_SMALL (-1002)
#define NETIO__OSSL_CA_MD_TOO_WEAK (-1003)
#endif
#if defined(SSL_R_VERSION_TOO_LOW)
#define NETIO__OSSL_VERSION_TOO_LOW SSL_R_VERSION_TOO_LOW
#else
#define NETIO__OSSL_VERSION_TOO_LOW (-1004)
#endif

typedef struct netio__ossl_staple {
    struct netio__ossl_staple *next;
    X509 *leaf; // the certificate it is about; the site's SSL_CTX keeps it alive
    size_t len; // the OCSP answer follows
} netio__ossl_staple;

typedef struct netio__ossl_site {
    SSL_CTX *ctx;
    BIO_METHOD *bio;
    netio__ossl_staple *staples;
} netio__ossl_site;

typedef struct netio__ossl_identity {
    X509 *leaf;
    STACK_OF(X509) * chain; // without the leaf; may be NULL
    EVP_PKEY *key;
    uint8_t *der; // of the leaf
} netio__ossl_identity;

// Before every call. Looking costs less than clearing what is clear.
static void netio__ossl_clear(void)
{
    if (ERR_peek_error()) ERR_clear_error();
}

static const char *netio__ossl_text(void) { return OpenSSL_version(OPENSSL_VERSION); }

static int netio__ossl_random(void *out, size_t len)
{
    return RAND_bytes((unsigned char *)out, (netio__ossl_int)len) == 1 ? 0 : NETIO_EIO;
}

static int netio__ossl_sha256(uint8_t out[32], const void *data, size_t len)
{
    return EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) == 1 ? 0 : NETIO_ENOMEM;
}

// The library's own words for what happened first; the queue is empty afterwards.
static const char *netio__ossl_reason(int64_t *code)
{
    netio__ossl_code e = (netio__ossl_code)ERR_peek_error();
    const char *text = ERR_reason_error_string(e);
    netio__ossl_clear();
    if (code) *code = (int64_t)e;
    return text ? text : "unknown error";
}

static int netio__ossl_config(netio_tls_error *why, const char *what, const char *file)
{
    int64_t code;
    const char *reason = netio__ossl_reason(&code);
    if (why) why->backend_code = code;
    return netio__tls_say(why, NETIO_TLS_CONFIG, what, file ? file : "", ": ", reason,
                          NETIO__TLS_END);
}

// --- the transport ------------------------------------------------------------------------------

static int netio__ossl_bio_read(BIO *bio, char *buf, int len)
{
    ptrdiff_t n = netio__tls_pull((netio_tls *)BIO_get_data(bio), buf, (size_t)len);
    BIO_clear_retry_flags(bio);
    if (n == NETIO_EAGAIN) BIO_set_retry_read(bio);
    return n < 0 ? -1 : (int)n;
}

static int netio__ossl_bio_write(BIO *bio, const char *data, int len)
{
    BIO_clear_retry_flags(bio);
    if (netio__tls_push((netio_tls *)BIO_get_data(bio), data, (size_t)len) < 0) return -1;
    return len;
}

static long netio__ossl_bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    (void)num, (void)ptr;
    if (cmd == BIO_CTRL_FLUSH) return 1;
    if (cmd == BIO_CTRL_EOF) return ((netio_tls *)BIO_get_data(bio))->saw_end;
    return 0;
}

static BIO_METHOD *netio__ossl_bio(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "netio");
    if (!m) return NULL;
    if (BIO_meth_set_read(m, netio__ossl_bio_read) &&
        BIO_meth_set_write(m, netio__ossl_bio_write) && BIO_meth_set_ctrl(m, netio__ossl_bio_ctrl))
        return m;
    BIO_meth_free(m);
    return NULL;
}

// --- results ------------------------------------------------------------------------------------

// What to make of the library's first complaint.
static int netio__ossl_classify(netio_tls *t, int reason)
{
    switch (reason) {
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_UNKNOWN_PROTOCOL:
    case NETIO__OSSL_VERSION_TOO_LOW: return NETIO_TLS_VERSION;
    case SSL_R_EXCESSIVE_MESSAGE_SIZE: return NETIO_TLS_LIMIT;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: netio__tls_blame(t, NETIO_TLS_NO_CERT);
    // fall through
    case SSL_R_CERTIFICATE_VERIFY_FAILED: return NETIO_TLS_VERIFY;
    default:
        return t->alert_out >= 0 && t->alert_out != 80 ? NETIO_TLS_PROTOCOL : NETIO_TLS_BACKEND;
    }
}

static int netio__ossl_fail(netio_tls *t)
{
    int reason = ERR_GET_REASON(ERR_peek_error());
    int64_t backend_code;
    const char *text = netio__ossl_reason(&backend_code);
    netio_tls_error *e = netio__tls_error_of(t);
    if (e) e->backend_code = backend_code;
    if (t->failed || t->saw_end) return NETIO_ETLS; // common code knows better
    if (reason == ERR_R_MALLOC_FAILURE) return netio__tls_fail(t, NETIO_ENOMEM);
    if (t->alert_in >= 0) {
        int code = t->alert_in == 70    ? NETIO_TLS_VERSION
                   : t->alert_in == 120 ? NETIO_TLS_ALPN
                                        : NETIO_TLS_ALERT;
        netio__tls_say(e, code, "the peer refused: ", netio__tls_alert_text(t->alert_in),
                       NETIO__TLS_END);
    } else if (t->alert_out == 120) {
        netio__tls_say(e, NETIO_TLS_ALPN, "no protocol of the client's ALPN is one of ours",
                       NETIO__TLS_END);
    } else {
        int code = netio__ossl_classify(t, reason);
        netio__tls_say(e, code,
                       code == NETIO_TLS_VERSION ? "no TLS version in common: "
                       : code == NETIO_TLS_LIMIT
                           ? "too large a message (for certificates see peer_chain_max): "
                       : code == NETIO_TLS_VERIFY ? "the peer was not verified: "
                       : code == NETIO_TLS_BACKEND
                           ? "the TLS library failed: "
                           : "the handshake or a record is not acceptable: ",
                       text, NETIO__TLS_END);
    }
    return netio__tls_fail(t, NETIO_ETLS);
}

// Of a call on `t` that returned `r`.
static int netio__ossl_result(netio_tls *t, int r)
{
    switch (SSL_get_error((SSL *)t->native, r)) {
    case SSL_ERROR_WANT_READ: return NETIO_EAGAIN;
    case SSL_ERROR_ZERO_RETURN: return NETIO_EOF;
    default: return netio__ossl_fail(t);
    }
}

static netio_tls *netio__ossl_engine(const SSL *ssl) { return (netio_tls *)SSL_get_app_data(ssl); }

static void netio__ossl_on_info(const SSL *ssl, int where, int value)
{
    netio_tls *t = netio__ossl_engine(ssl);
    int alert = value & 0xFF;
    if (!(where & SSL_CB_ALERT) || alert == 0 || (value >> 8 == 1 && alert != 90)) return;
    if (where & SSL_CB_READ) t->alert_in = (int16_t)alert;
    else t->alert_out = (int16_t)alert;
}

static void netio__ossl_on_keylog(const SSL *ssl, const char *line)
{
    const netio_tls_config *cfg = &netio__ossl_engine(ssl)->ctx->cfg;
    if (cfg->on_keylog) cfg->on_keylog(cfg->user, line);
}

// --- the peer -----------------------------------------------------------------------------------

// The DER of `leaf` (may be NULL, or the first of `rest` already) and of `rest` (may be NULL).
static int netio__ossl_chain_of(netio__tls_chain *out, X509 *leaf, STACK_OF(X509) * rest)
{
    int count = rest ? (int)sk_X509_num(rest) : 0;
    bool extra = leaf && !(count && X509_cmp(leaf, sk_X509_value(rest, 0)) == 0);
    size_t total = (size_t)(count + 1) * sizeof(netio_buf), at = total;
    out->certs = NULL;
    out->count = 0;
    for (int i = extra ? -1 : 0; i < count; i++) {
        int n = i2d_X509(i < 0 ? leaf : sk_X509_value(rest, (netio__ossl_int)i), NULL);
        if (n <= 0) return NETIO_ENOMEM;
        total += (size_t)n;
    }
    uint8_t *block = (uint8_t *)NETIO_MALLOC(total);
    if (!block) return NETIO_ENOMEM;
    out->certs = (netio_buf *)(void *)block;
    for (int i = extra ? -1 : 0; i < count; i++) {
        unsigned char *p = block + at;
        int n = i2d_X509(i < 0 ? leaf : sk_X509_value(rest, (netio__ossl_int)i), &p);
        out->certs[out->count].data = block + at;
        out->certs[out->count++].len = (size_t)n;
        at += (size_t)n;
    }
    return 0;
}

static int netio__ossl_chain(netio_tls *t, netio__tls_chain *out)
{
    SSL *ssl = (SSL *)t->native;
    X509 *leaf = SSL_get_peer_certificate(ssl); // clients have it in the chain too, servers not
    // Whether a resumed session still has the others depends on where it was kept.
    bool alone = !leaf || SSL_session_reused(ssl) == 1;
    int err = netio__ossl_chain_of(out, leaf, alone ? NULL : SSL_get_peer_cert_chain(ssl));
    X509_free(leaf);
    return err;
}

static unsigned netio__ossl_bit(int error)
{
    switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD: return NETIO_TLS_EXPIRED;
    case X509_V_ERR_CERT_NOT_YET_VALID:
    case X509_V_ERR_ERROR_IN_CERT_NOT_BEFORE_FIELD: return NETIO_TLS_NOT_YET;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_UNTRUSTED:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG: return NETIO_TLS_UNTRUSTED;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return NETIO_TLS_NAME;
    case X509_V_ERR_INVALID_PURPOSE:
    case X509_V_ERR_INVALID_CA:
    case X509_V_ERR_KEYUSAGE_NO_CERTSIGN: return NETIO_TLS_PURPOSE;
    case X509_V_ERR_CERT_REVOKED: return NETIO_TLS_REVOKED;
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE: return NETIO_TLS_BAD_SIG;
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
    case X509_V_ERR_PERMITTED_VIOLATION:
    case X509_V_ERR_EXCLUDED_VIOLATION:
    case X509_V_ERR_SUBTREE_MINMAX:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX:
    case X509_V_ERR_UNSUPPORTED_NAME_SYNTAX: return NETIO_TLS_CONSTRAINT;
    case NETIO__OSSL_EE_KEY_TOO_SMALL:
    case NETIO__OSSL_CA_KEY_TOO_SMALL:
    case NETIO__OSSL_CA_MD_TOO_WEAK: return NETIO_TLS_WEAK;
    default: return NETIO_TLS_OTHER;
    }
}

static netio_tls *netio__ossl_verifying(X509_STORE_CTX *x)
{
    return netio__ossl_engine(
        (SSL *)X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx()));
}

// Called for each thing wrong: note it and go on, so that all of them are known.
static int netio__ossl_on_finding(int ok, X509_STORE_CTX *x)
{
    netio__tls_findings *f = netio__ossl_verifying(x)->findings;
    int error = X509_STORE_CTX_get_error(x), depth = X509_STORE_CTX_get_error_depth(x);
    if (ok) return 1;
    unsigned bit = netio__ossl_bit(error);
    if (!(f->bits & bit)) {
        f->code[netio__tls_index(bit)] = error;
        f->text[netio__tls_index(bit)] = X509_verify_cert_error_string(error);
    }
    netio__tls_find(f, bit, (size_t)(depth < 0 ? 0 : depth));
    return 1;
}

// In place of the library's whole check, which is made from here.
static int netio__ossl_on_verify(X509_STORE_CTX *x, void *arg)
{
    netio_tls *t = netio__ossl_verifying(x);
    netio__tls_findings f;
    netio__tls_chain chain;
    (void)arg;
    memset(&f, 0, sizeof f);
    t->findings = &f;
    X509_STORE_CTX_set_verify_cb(x, netio__ossl_on_finding);
    if (X509_verify_cert(x) <= 0 && !f.bits) netio__tls_find(&f, NETIO_TLS_OTHER, 0);
    t->findings = NULL;
    f.built = !(f.bits & (NETIO_TLS_UNTRUSTED | NETIO_TLS_BAD_SIG | NETIO_TLS_OTHER));
    int err =
        netio__ossl_chain_of(&chain, X509_STORE_CTX_get0_cert(x), X509_STORE_CTX_get0_chain(x));
    if (err < 0) netio__tls_fail(t, err);
    else err = netio__tls_verify(t, &f, &chain);
    NETIO_FREE(chain.certs);
    // The alert that goes out follows from this value.
    if (err == 0) X509_STORE_CTX_set_error(x, X509_V_OK);
    else X509_STORE_CTX_set_error(x, f.told ? f.told : X509_V_ERR_CERT_REJECTED);
    return err == 0;
}

// --- OCSP answers: what a certificate's CA says of it today -------------------------------------

#if NETIO__OSSL_BORING
static int netio__ossl_staple_use(netio__ossl_site *s, X509 *leaf, netio_buf staple)
{
    (void)leaf;
    return SSL_CTX_set_ocsp_response(s->ctx, (const uint8_t *)staple.data, staple.len);
}

static void netio__ossl_staple_setup(SSL_CTX *ctx, netio__ossl_site *s) { (void)ctx, (void)s; }
static bool netio__ossl_staple_want(SSL *ssl) { return (void)ssl, false; } // it cannot read them
static void netio__ossl_staple_free(netio__ossl_site *s) { (void)s; }
#else
static int netio__ossl_staple_use(netio__ossl_site *s, X509 *leaf, netio_buf staple)
{
    netio__ossl_staple *one = (netio__ossl_staple *)NETIO_MALLOC(sizeof *one + staple.len);
    if (!one) return 0;
    one->leaf = leaf;
    one->len = staple.len;
    memcpy(one + 1, staple.data, staple.len);
    one->next = s->staples;
    s->staples = one;
    return 1;
}

static void netio__ossl_staple_free(netio__ossl_site *s)
{
    while (s->staples) {
        netio__ossl_staple *one = s->staples;
        s->staples = one->next;
        NETIO_FREE(one);
    }
}

static bool netio__ossl_staple_good(SSL *ssl, OCSP_BASICRESP *answer, X509_STORE *roots)
{
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    int status = V_OCSP_CERTSTATUS_UNKNOWN, reason;
    ASN1_GENERALIZEDTIME *revoked = NULL, *from = NULL, *until = NULL;
    if (!chain || sk_X509_num(chain) < 1) return false;
    X509 *leaf = sk_X509_value(chain, 0);
    X509 *issuer = sk_X509_num(chain) > 1 ? sk_X509_value(chain, 1) : leaf;
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, leaf, issuer);
    bool good = id && OCSP_basic_verify(answer, chain, roots, 0) == 1 &&
                OCSP_resp_find_status(answer, id, &status, &reason, &revoked, &from, &until) == 1 &&
                status == V_OCSP_CERTSTATUS_GOOD && OCSP_check_validity(from, until, 300, -1) == 1;
    OCSP_CERTID_free(id);
    return good;
}

static int netio__ossl_staple_check(netio_tls *t, SSL *ssl)
{
    const unsigned char *p;
    OCSP_BASICRESP *answer = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(ssl, &p);
    OCSP_RESPONSE *whole = len > 0 ? d2i_OCSP_RESPONSE(NULL, &p, len) : NULL;
    if (whole && OCSP_response_status(whole) == OCSP_RESPONSE_STATUS_SUCCESSFUL)
        answer = OCSP_response_get1_basic(whole);
    bool good = answer &&
                netio__ossl_staple_good(ssl, answer, SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl)));
    OCSP_BASICRESP_free(answer);
    OCSP_RESPONSE_free(whole);
    if (good) return 1;
    netio_tls_error *e = netio__tls_blame(t, NETIO_TLS_REVOKED);
    netio__tls_fail(t, netio__tls_say(e, NETIO_TLS_VERIFY, "certificate of ", t->name,
                                      len > 0 ? ": its OCSP answer is not good"
                                              : " came without the OCSP answer that is required",
                                      NETIO__TLS_END));
    return 0;
}

static int netio__ossl_on_staple(SSL *ssl, void *arg)
{
    netio_tls *t = netio__ossl_engine(ssl);
    netio__ossl_staple *one = ((netio__ossl_site *)arg)->staples;
    if (!t->server) return t->ctx->cfg.require_staple ? netio__ossl_staple_check(t, ssl) : 1;
    while (one && one->leaf != SSL_get_certificate(ssl)) one = one->next;
    unsigned char *copy = one ? (unsigned char *)OPENSSL_malloc(one->len) : NULL;
    if (!copy) return SSL_TLSEXT_ERR_NOACK;
    memcpy(copy, one + 1, one->len);
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)one->len); // takes the copy
    return SSL_TLSEXT_ERR_OK;
}

static void netio__ossl_staple_setup(SSL_CTX *ctx, netio__ossl_site *s)
{
    SSL_CTX_set_tlsext_status_cb(ctx, netio__ossl_on_staple);
    SSL_CTX_set_tlsext_status_arg(ctx, s);
}

static bool netio__ossl_staple_want(SSL *ssl)
{
    return SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp) == 1;
}
#endif

// --- tickets ------------------------------------------------------------------------------------

#if NETIO__OSSL_3
static bool netio__ossl_ticket_mac(EVP_MAC_CTX *mac, netio__tls_ticket *key)
{
    char hash[] = "SHA256";
    OSSL_PARAM params[3];
    params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac_key, 32);
    params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, hash, 0);
    params[2] = OSSL_PARAM_construct_end();
    return EVP_MAC_CTX_set_params(mac, params) == 1;
}
typedef EVP_MAC_CTX netio__ossl_mac;
#define NETIO__OSSL_TICKETS SSL_CTX_set_tlsext_ticket_key_evp_cb
#else
static bool netio__ossl_ticket_mac(HMAC_CTX *mac, netio__tls_ticket *key)
{
    return HMAC_Init_ex(mac, key->mac_key, 32, EVP_sha256(), NULL) == 1;
}
typedef HMAC_CTX netio__ossl_mac;
#define NETIO__OSSL_TICKETS SSL_CTX_set_tlsext_ticket_key_cb
#endif

static int netio__ossl_on_ticket(SSL *ssl, unsigned char name[16], unsigned char *iv,
                                 EVP_CIPHER_CTX *cipher, netio__ossl_mac *mac, int seal)
{
    netio_tls *t = netio__ossl_engine(ssl);
    const EVP_CIPHER *aes = EVP_aes_256_cbc();
    netio__tls_ticket key;
    int found = netio__tls_ticket_key(t->first, seal ? NULL : name, &key);
    if (found <= 0) return found < 0 ? -1 : 0;
    bool ok = netio__ossl_ticket_mac(mac, &key);
    if (seal) {
        memcpy(name, key.name, sizeof key.name);
        ok = ok && RAND_bytes(iv, EVP_CIPHER_iv_length(aes)) == 1 &&
             EVP_EncryptInit_ex(cipher, aes, NULL, key.cipher_key, iv) == 1;
    } else {
        ok = ok && EVP_DecryptInit_ex(cipher, aes, NULL, key.cipher_key, iv) == 1;
    }
    netio__tls_wipe(&key, sizeof key);
    // 2 asks for a new ticket: with TLS 1.3 each is used once, so the client is left without one.
    return !ok ? -1 : !seal && SSL_version(ssl) == TLS1_3_VERSION ? 2 : found;
}

#if NETIO__OSSL_TRUE
// A client whose certificate has expired since then is to make a full handshake, which says so.
static SSL_TICKET_RETURN netio__ossl_on_opened(SSL *ssl, SSL_SESSION *session,
                                               const unsigned char *name, size_t name_len,
                                               SSL_TICKET_STATUS status, void *arg)
{
    const netio_tls_config *cfg = &netio__ossl_engine(ssl)->ctx->cfg;
    time_t now = (time_t)netio__tls_time(cfg);
    bool opened = status == SSL_TICKET_SUCCESS || status == SSL_TICKET_SUCCESS_RENEW;
    X509 *peer = opened ? SSL_SESSION_get0_peer(session) : NULL;
    (void)name, (void)name_len, (void)arg;
    if (!opened) return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (peer && !cfg->insecure_no_time && X509_cmp_time(X509_get0_notAfter(peer), &now) <= 0)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

static void netio__ossl_opened_setup(SSL_CTX *ctx)
{
    SSL_CTX_set_session_ticket_cb(ctx, NULL, netio__ossl_on_opened, NULL);
}
#else
static void netio__ossl_opened_setup(SSL_CTX *ctx) { (void)ctx; } // netio__tls_accept looks
#endif

#if NETIO__OSSL_BORING
static SSL_SESSION *netio__ossl_session_read(SSL *ssl, const uint8_t *data, size_t len)
{
    return SSL_SESSION_from_bytes(data, len, SSL_get_SSL_CTX(ssl));
}

static uint8_t *netio__ossl_session_write(SSL_SESSION *session, size_t *len)
{
    uint8_t *data = NULL;
    return SSL_SESSION_to_bytes(session, &data, len) == 1 ? data : NULL;
}
#else
static SSL_SESSION *netio__ossl_session_read(SSL *ssl, const uint8_t *data, size_t len)
{
    (void)ssl;
    return d2i_SSL_SESSION(NULL, &data, (long)len);
}

static uint8_t *netio__ossl_session_write(SSL_SESSION *session, size_t *len)
{
    int n = i2d_SSL_SESSION(session, NULL);
    uint8_t *data = n > 0 ? (uint8_t *)OPENSSL_malloc((size_t)n) : NULL;
    unsigned char *at = data;
    if (data) i2d_SSL_SESSION(session, &at);
    *len = data ? (size_t)n : 0;
    return data;
}
#endif

static void *netio__ossl_session_open(netio_tls *t, netio_buf bytes)
{
    netio__ossl_clear();
    SSL_SESSION *s =
        netio__ossl_session_read((SSL *)t->native, (const uint8_t *)bytes.data, bytes.len);
    netio__ossl_clear();
    return s;
}

static int netio__ossl_session_bytes(void *session, netio_buf *out)
{
    out->data = netio__ossl_session_write((SSL_SESSION *)session, &out->len);
    return out->data ? 0 : NETIO_ENOMEM;
}

static void netio__ossl_session_bytes_free(netio_buf bytes)
{
    netio__tls_wipe((void *)(uintptr_t)bytes.data, bytes.len);
    OPENSSL_free((void *)(uintptr_t)bytes.data);
}

static void netio__ossl_session_keep(void *session) { SSL_SESSION_up_ref((SSL_SESSION *)session); }

static void netio__ossl_session_free(void *session) { SSL_SESSION_free((SSL_SESSION *)session); }

static int netio__ossl_on_session(SSL *ssl, SSL_SESSION *session)
{
    netio_tls *t = netio__ossl_engine(ssl);
    int64_t hint = (int64_t)SSL_SESSION_get_ticket_lifetime_hint(session);
    int64_t lifetime = (int64_t)SSL_SESSION_get_timeout(session);
    netio__tls_session_came(t, session, hint > 0 && hint < lifetime ? hint : lifetime,
                            SSL_version(ssl) == TLS1_3_VERSION);
    return 0; // the library's reference stays its own
}

static int netio__ossl_resume(netio_tls *t, void *session)
{
    netio__ossl_clear();
    SSL_set_session((SSL *)t->native, (SSL_SESSION *)session);
    netio__ossl_clear();
    return 0;
}

// --- pre-shared keys, ALPN ----------------------------------------------------------------------

#if !NETIO__OSSL_LIBRE
static unsigned netio__ossl_on_psk_client(SSL *ssl, const char *hint, char *identity, unsigned cap,
                                          unsigned char *key, unsigned key_cap)
{
    (void)hint;
    return (unsigned)netio__tls_psk(netio__ossl_engine(ssl), identity, cap, key, key_cap);
}

static unsigned netio__ossl_on_psk_server(SSL *ssl, const char *identity, unsigned char *key,
                                          unsigned key_cap)
{
    char copy[257];
    if (!identity || strlen(identity) >= sizeof copy) return 0;
    memcpy(copy, identity, strlen(identity) + 1);
    return (unsigned)netio__tls_psk(netio__ossl_engine(ssl), copy, sizeof copy, key, key_cap);
}

static bool netio__ossl_psk_setup(netio_tls_ctx *c, SSL_CTX *ctx)
{
    if (NETIO__OSSL_BORING && c->cfg.max_version > NETIO_TLS_1_2)
        c->cfg.max_version = NETIO_TLS_1_2;
    if (c->cfg.max_version < c->cfg.min_version) return false;
    SSL_CTX_set_psk_client_callback(ctx, netio__ossl_on_psk_client);
    SSL_CTX_set_psk_server_callback(ctx, netio__ossl_on_psk_server);
    return true;
}

static void netio__ossl_psk_role(const netio_tls_ctx *c, SSL *ssl)
{
    SSL_set_psk_client_callback(ssl, c->cfg.psk ? netio__ossl_on_psk_client : NULL);
    SSL_set_psk_server_callback(ssl, c->cfg.psk ? netio__ossl_on_psk_server : NULL);
}

// With TLS 1.3 it looks like a resumed session, and contexts with keys have no others.
static const char *netio__ossl_psk_used(netio_tls *t, const SSL *ssl)
{
    bool reused = SSL_session_reused((SSL *)(uintptr_t)ssl) == 1;
    if (!t->ctx->cfg.psk) return NULL;
    if (SSL_version(ssl) == TLS1_3_VERSION) return reused ? "" : NULL;
    return SSL_get_psk_identity(ssl);
}
#else
static const char *netio__ossl_psk_used(netio_tls *t, const SSL *ssl)
{
    (void)t, (void)ssl;
    return NULL;
}

static bool netio__ossl_psk_setup(netio_tls_ctx *c, SSL_CTX *ctx)
{
    return (void)c, (void)ctx, false;
}

static void netio__ossl_psk_role(const netio_tls_ctx *c, SSL *ssl) { (void)c, (void)ssl; }
#endif

static int netio__ossl_on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                               const unsigned char *offered, unsigned offered_len, void *arg)
{
    const netio_tls_ctx *ctx = netio__ossl_engine(ssl)->ctx;
    unsigned char *chosen;
    (void)arg;
    if (!ctx->alpn_len) return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto(&chosen, out_len, ctx->alpn, (unsigned)ctx->alpn_len, offered,
                              offered_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

#if NETIO__OSSL_TRUE
static void netio__ossl_no_tickets(SSL *ssl)
{
    SSL_set_options(ssl, SSL_OP_NO_TICKET);
    SSL_set_num_tickets(ssl, 0); // TLS 1.3 would send some that it remembers here
}
#else
static void netio__ossl_no_tickets(SSL *ssl) { SSL_set_options(ssl, SSL_OP_NO_TICKET); }
#endif

// --- which site: before tickets are looked at, or one for another site would be taken ----------

// What the context decides that SSL_set_SSL_CTX leaves as it was.
static void netio__ossl_role(netio_tls *t, SSL *ssl)
{
    const netio_tls_config *cfg = &t->ctx->cfg;
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    int mode = cfg->client_cert == NETIO_TLS_CLIENT_CERT_NONE ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;
    if (cfg->client_cert == NETIO_TLS_CLIENT_CERT_REQUIRED) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_set_verify(ssl, t->server ? mode : SSL_VERIFY_PEER, NULL);
    SSL_set_min_proto_version(ssl, (uint16_t)cfg->min_version);
    SSL_set_max_proto_version(ssl, (uint16_t)cfg->max_version);
    SSL_set_max_cert_list(ssl, (netio__ossl_long)cfg->peer_chain_max);
    if (cfg->verify_time) X509_VERIFY_PARAM_set_time(param, (time_t)cfg->verify_time);
    else X509_VERIFY_PARAM_clear_flags(param, X509_V_FLAG_USE_CHECK_TIME);
    // Resuming with client certificates fails without one; with the policy's digest a ticket is
    // good only where the same checks were made.
    if (t->server) SSL_set_session_id_context(ssl, t->ctx->policy, sizeof t->ctx->policy);
    // LibreSSL looks at tickets before it knows the name: one for another site would be taken.
    if (cfg->no_tickets || cfg->psk || (NETIO__OSSL_LIBRE && t->server && cfg->on_sni))
        netio__ossl_no_tickets(ssl);
    netio__ossl_psk_role(t->ctx, ssl);
}

static bool netio__ossl_choose(SSL *ssl, const uint8_t *ext, size_t len)
{
    netio_tls *t = netio__ossl_engine(ssl);
    void *site;
    // RFC 6066 section 3: a list with its length, of which the first is the host name (type 0).
    if (len < 5 || ext[2] != 0 || (size_t)(ext[3] << 8 | ext[4]) > len - 5) return true;
    if (netio__tls_choose(t, ext + 5, (size_t)(ext[3] << 8 | ext[4]), &site) < 0) return false;
    SSL_CTX *ctx = site ? ((netio__ossl_site *)site)->ctx : SSL_get_SSL_CTX(ssl);
    if (ctx == SSL_get_SSL_CTX(ssl)) return true;
    if (!SSL_set_SSL_CTX(ssl, ctx)) return false;
    netio__ossl_role(t, ssl);
    return true;
}

#if NETIO__OSSL_BORING
static enum ssl_select_cert_result_t netio__ossl_on_hello(const SSL_CLIENT_HELLO *hello)
{
    const uint8_t *ext;
    size_t len;
    if (!SSL_early_callback_ctx_extension_get(hello, TLSEXT_TYPE_server_name, &ext, &len))
        return ssl_select_cert_success;
    return netio__ossl_choose((SSL *)hello->ssl, ext, len) ? ssl_select_cert_success
                                                           : ssl_select_cert_error;
}

static void netio__ossl_hello_setup(SSL_CTX *ctx)
{
    SSL_CTX_set_select_certificate_cb(ctx, netio__ossl_on_hello);
}
#elif NETIO__OSSL_LIBRE
static int netio__ossl_on_name(SSL *ssl, int *alert, void *arg) // later than one would like
{
    uint8_t ext[5 + 256] = {0};
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    size_t len = name ? strlen(name) : 0;
    (void)alert, (void)arg;
    if (len == 0 || len > 255) return SSL_TLSEXT_ERR_NOACK;
    ext[4] = (uint8_t)len;
    memcpy(ext + 5, name, len);
    return netio__ossl_choose(ssl, ext, 5 + len) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void netio__ossl_hello_setup(SSL_CTX *ctx)
{
    SSL_CTX_set_tlsext_servername_callback(ctx, netio__ossl_on_name);
}
#else
static int netio__ossl_on_hello(SSL *ssl, int *alert, void *arg)
{
    const unsigned char *ext;
    size_t len;
    (void)arg;
    *alert = SSL_AD_INTERNAL_ERROR;
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &ext, &len))
        return SSL_CLIENT_HELLO_SUCCESS;
    return netio__ossl_choose(ssl, ext, len) ? SSL_CLIENT_HELLO_SUCCESS : SSL_CLIENT_HELLO_ERROR;
}

static void netio__ossl_hello_setup(SSL_CTX *ctx)
{
    SSL_CTX_set_client_hello_cb(ctx, netio__ossl_on_hello, NULL);
}
#endif

// --- a site -------------------------------------------------------------------------------------

#define NETIO__OSSL_CIPHERS                                                                        \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"     \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"

// Groups, with the hybrid that quantum computers do not break where the library has it; the stars
// (OpenSSL 3.5) make a client send keys for both, so that older servers need no second round.
static bool netio__ossl_groups(SSL_CTX *ctx)
{
    return NETIO__OSSL_GROUPS(ctx, "*X25519MLKEM768:*X25519:P-256:P-384") == 1 ||
           NETIO__OSSL_GROUPS(ctx, "X25519MLKEM768:X25519:P-256:P-384") == 1 ||
           NETIO__OSSL_GROUPS(ctx, "X25519:P-256:P-384") == 1;
}

static bool netio__ossl_suites_1_2(SSL_CTX *ctx, const netio_tls_config *cfg)
{
    const char *list = cfg->ciphers                  ? cfg->ciphers
                       : cfg->insecure_allow_tls_1_0 ? "HIGH:!aNULL:!eNULL:!PSK:!SRP:!3DES:!RC4"
                       : cfg->psk ? "ECDHE-PSK-CHACHA20-POLY1305:" NETIO__OSSL_CIPHERS
                                  : NETIO__OSSL_CIPHERS;
    return SSL_CTX_set_cipher_list(ctx, list) == 1;
}

// Everything but SHA-1 and SHA-224.
#define NETIO__OSSL_SIGALGS                                                                        \
    "ECDSA+SHA256:ed25519:RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA384:RSA-PSS+SHA384:RSA+SHA384:"       \
    "ECDSA+SHA512:RSA-PSS+SHA512:RSA+SHA512"

#if NETIO__OSSL_TRUE
static bool netio__ossl_strength(SSL_CTX *ctx, const netio_tls_config *cfg)
{
    // Level 0 is what TLS 1.0 with its MD5 and SHA-1 needs; 2 keeps 112 bits everywhere.
    if (cfg->insecure_allow_tls_1_0) SSL_CTX_set_security_level(ctx, 0);
    else if (SSL_CTX_get_security_level(ctx) < 2) SSL_CTX_set_security_level(ctx, 2);
    SSL_CTX_clear_options(ctx, SSL_OP_LEGACY_SERVER_CONNECT); // RFC 5746 is not optional
    return SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                         "TLS_CHACHA20_POLY1305_SHA256") == 1 &&
           (cfg->insecure_allow_tls_1_0 ||
            SSL_CTX_set1_sigalgs_list(ctx, NETIO__OSSL_SIGALGS) == 1);
}
#elif NETIO__OSSL_BORING
static bool netio__ossl_strength(SSL_CTX *ctx, const netio_tls_config *cfg)
{
    return cfg->insecure_allow_tls_1_0 || SSL_CTX_set1_sigalgs_list(ctx, NETIO__OSSL_SIGALGS) == 1;
}
#else
static bool netio__ossl_strength(SSL_CTX *ctx, const netio_tls_config *cfg)
{
    (void)cfg; // signature algorithms cannot be chosen; netio__tls_verify looks at certificates
    return SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                         "TLS_CHACHA20_POLY1305_SHA256") == 1;
}
#endif

static void netio__ossl_callbacks(netio__ossl_site *s, const netio_tls_config *cfg)
{
    SSL_CTX_set_cert_verify_callback(s->ctx, netio__ossl_on_verify, NULL);
    SSL_CTX_set_info_callback(s->ctx, netio__ossl_on_info);
    SSL_CTX_set_alpn_select_cb(s->ctx, netio__ossl_on_alpn, NULL);
    SSL_CTX_sess_set_new_cb(s->ctx, netio__ossl_on_session);
    NETIO__OSSL_TICKETS(s->ctx, netio__ossl_on_ticket);
    netio__ossl_opened_setup(s->ctx);
    if (cfg->on_keylog) SSL_CTX_set_keylog_callback(s->ctx, netio__ossl_on_keylog);
    netio__ossl_hello_setup(s->ctx);
    netio__ossl_staple_setup(s->ctx, s);
}

static void netio__ossl_site_close(void *site)
{
    netio__ossl_site *s = (netio__ossl_site *)site;
    SSL_CTX_free(s->ctx);
    BIO_meth_free(s->bio);
    netio__ossl_staple_free(s);
    NETIO_FREE(s);
}

// Trust, and whom a server asks for, are those of the first site.
static bool netio__ossl_share(SSL_CTX *ctx, SSL_CTX *first)
{
    X509_STORE *roots = SSL_CTX_get_cert_store(first);
    STACK_OF(X509_NAME) *names = SSL_CTX_get_client_CA_list(first);
    X509_STORE_up_ref(roots);
    SSL_CTX_set_cert_store(ctx, roots); // takes the reference
    if (!names) return true;
    names = SSL_dup_CA_list(names);
    SSL_CTX_set_client_CA_list(ctx, names); // takes the list
    return names != NULL;
}

static int netio__ossl_setup(netio__ossl_site *s, netio_tls_ctx *c, netio_tls_error *why)
{
    const netio_tls_config *cfg = &c->cfg;
    SSL_CTX *ctx = s->ctx;
    if (!SSL_CTX_set_min_proto_version(ctx, (uint16_t)cfg->min_version) ||
        !SSL_CTX_set_max_proto_version(ctx, (uint16_t)cfg->max_version)) {
        netio__ossl_config(why, "this build of the library lacks a version", NULL);
        return NETIO_ENOTSUP;
    }
    if (cfg->psk && !netio__ossl_psk_setup(c, ctx)) {
        netio__tls_say(why, NETIO_TLS_CONFIG, "pre-shared keys: LibreSSL has none, BoringSSL only ",
                       "with TLS 1.2", NETIO__TLS_END);
        return NETIO_ENOTSUP;
    }
    if (cfg->require_staple && NETIO__OSSL_BORING) {
        netio__tls_say(why, NETIO_TLS_CONFIG, "BoringSSL cannot read OCSP answers", NETIO__TLS_END);
        return NETIO_ENOTSUP;
    }
    if (!netio__ossl_suites_1_2(ctx, cfg)) return netio__ossl_config(why, "ciphers", NULL);
    if (!netio__ossl_strength(ctx, cfg) || !netio__ossl_groups(ctx))
        return netio__ossl_config(why, "this build of the library lacks what we need", NULL);
    if (c->alpn_len && SSL_CTX_set_alpn_protos(ctx, c->alpn, (unsigned)c->alpn_len) != 0)
        return NETIO_ENOMEM;
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 NETIO__OSSL_NO_RENEGOTIATION |
                                 NETIO__OSSL_NO_CLIENT_RENEGOTIATION);
    // Output never blocks, so a write is never partial; buffers go back when they are empty.
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_max_cert_list(ctx, (netio__ossl_long)cfg->peer_chain_max);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_set_timeout(ctx, NETIO__TLS_SESSION_S);
    netio__ossl_callbacks(s, cfg);
    return 0;
}

static int netio__ossl_site_open(void **out, netio_tls_ctx *ctx, void *first, netio_tls_error *why)
{
    netio__ossl_site *s = (netio__ossl_site *)NETIO_MALLOC(sizeof *s);
    int err = NETIO_ENOMEM;
    if (!s) return err;
    netio__ossl_clear();
    memset(s, 0, sizeof *s);
    s->ctx = SSL_CTX_new(TLS_method());
    s->bio = netio__ossl_bio();
    if (s->ctx && s->bio) err = netio__ossl_setup(s, ctx, why);
    if (err == 0 && first && !netio__ossl_share(s->ctx, ((netio__ossl_site *)first)->ctx))
        err = NETIO_ENOMEM;
    if (err == 0) *out = s;
    else netio__ossl_site_close(s);
    return err;
}

// --- trust, certificates, keys ------------------------------------------------------------------

static bool netio__ossl_is_pem(netio_buf data)
{
    static const char begin[] = "-----BEGIN ";
    const char *p = (const char *)data.data;
    for (size_t i = 0; i + sizeof begin - 1 <= data.len; i++)
        if (p[i] == '-' && memcmp(p + i, begin, sizeof begin - 1) == 0) return true;
    return false;
}

static bool netio__ossl_trust_one(netio__ossl_site *s, X509 *root)
{
    return X509_STORE_add_cert(SSL_CTX_get_cert_store(s->ctx), root) == 1 &&
           SSL_CTX_add_client_CA(s->ctx, root) == 1;
}

static ptrdiff_t netio__ossl_site_trust(void *site, const void *data, size_t len)
{
    netio__ossl_site *s = (netio__ossl_site *)site;
    netio_buf bytes = {data, len};
    const unsigned char *der = (const unsigned char *)data;
    ptrdiff_t count = 0;
    X509 *root;
    netio__ossl_clear();
    BIO *in = BIO_new_mem_buf(data, (int)len);
    if (!in) return NETIO_ENOMEM;
    bool pem = netio__ossl_is_pem(bytes), ok = true;
    while (ok && (root = pem ? PEM_read_bio_X509(in, NULL, NULL, NULL)
                             : d2i_X509(NULL, &der, (long)len)) != NULL) {
        ok = netio__ossl_trust_one(s, root);
        X509_free(root);
        if (ok) count++;
        if (!pem) break;
    }
    BIO_free(in);
    // After the last one PEM says that there is none; any other complaint is about a bad one.
    bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE || !ERR_peek_error();
    netio__ossl_clear();
    return ok && end ? count : (ptrdiff_t)NETIO_EPROTO;
}

static ptrdiff_t netio__ossl_site_trust_system(void *site)
{
    X509_STORE *roots = SSL_CTX_get_cert_store(((netio__ossl_site *)site)->ctx);
    netio__ossl_clear();
    X509_STORE_set_default_paths(roots); // one file now, a directory's when they are needed
    netio__ossl_clear();
    return (ptrdiff_t)sk_X509_OBJECT_num(X509_STORE_get0_objects(roots)) +
           netio__tls_each_file(X509_get_default_cert_dir(), NULL, NULL);
}

typedef struct netio__ossl_asking {
    const netio_tls_config *cfg;
    bool asked;
} netio__ossl_asking;

// OpenSSL would ask the terminal if it were given no callback.
static int netio__ossl_on_password(char *buf, int cap, int writing, void *arg)
{
    netio__ossl_asking *a = (netio__ossl_asking *)arg;
    (void)writing;
    a->asked = true;
    if (!a->cfg->key_password || cap <= 0) return -1;
    int n = a->cfg->key_password(a->cfg->user, buf, (size_t)cap);
    return n > cap ? -1 : n;
}

static void netio__ossl_identity_close(void *identity)
{
    netio__ossl_identity *id = (netio__ossl_identity *)identity;
    X509_free(id->leaf);
    EVP_PKEY_free(id->key);
    sk_X509_pop_free(id->chain, X509_free);
    OPENSSL_free(id->der);
    NETIO_FREE(id);
}

// The chain of a PEM file, or the one certificate of a DER file.
static bool netio__ossl_read_certs(netio__ossl_identity *id, netio_buf data)
{
    const unsigned char *der = (const unsigned char *)data.data;
    X509 *more;
    if (!netio__ossl_is_pem(data)) {
        id->leaf = d2i_X509(NULL, &der, (long)data.len);
        return id->leaf != NULL;
    }
    BIO *in = BIO_new_mem_buf(data.data, (int)data.len);
    id->chain = sk_X509_new_null();
    id->leaf = in ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    bool ok = id->leaf && id->chain;
    while (ok && (more = PEM_read_bio_X509(in, NULL, NULL, NULL)) != NULL)
        if (!sk_X509_push(id->chain, more)) {
            X509_free(more);
            ok = false;
        }
    BIO_free(in);
    ok = ok && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (ok) netio__ossl_clear();
    return ok;
}

static EVP_PKEY *netio__ossl_read_key(netio_buf data, netio__ossl_asking *asking)
{
    const unsigned char *der = (const unsigned char *)data.data;
    EVP_PKEY *key = NULL;
    BIO *in = BIO_new_mem_buf(data.data, (int)data.len);
    if (in && netio__ossl_is_pem(data)) {
        key = PEM_read_bio_PrivateKey(in, NULL, netio__ossl_on_password, asking);
    } else if (in) {
        key = d2i_AutoPrivateKey(NULL, &der, (long)data.len);
        if (!key) key = d2i_PKCS8PrivateKey_bio(in, NULL, netio__ossl_on_password, asking);
    }
    BIO_free(in);
    return key;
}

// False: it is no PKCS#12. Else what is in it, as far as it could be opened. (BoringSSL takes any
// bytes for one until it opens it.)
static bool netio__ossl_read_p12(netio__ossl_identity *id, netio_buf data,
                                 netio__ossl_asking *asking)
{
    const unsigned char *der = (const unsigned char *)data.data;
    char password[256] = {0};
    if (netio__ossl_is_pem(data) || data.len < 2 || der[0] != NETIO__DER_SEQUENCE) return false;
    PKCS12 *p12 = d2i_PKCS12(NULL, &der, (netio__ossl_long)data.len);
    if (!p12) return false;
    netio__ossl_clear();
    if (!PKCS12_parse(p12, "", &id->key, &id->leaf, &id->chain)) {
        int n = netio__ossl_on_password(password, sizeof password - 1, 0, asking);
        netio__ossl_clear();
        if (n >= 0) PKCS12_parse(p12, password, &id->key, &id->leaf, &id->chain);
    }
    netio__tls_wipe(password, sizeof password);
    PKCS12_free(p12);
    return true;
}

static int netio__ossl_identity_read(netio__ossl_identity *id, netio_tls_ctx *ctx, netio_buf cert,
                                     netio_buf key, const netio_tls_identity *files,
                                     netio_tls_error *why)
{
    netio__ossl_asking asking = {&ctx->cfg, false};
    const char *in_cert = files->cert_file ? files->cert_file : "in memory";
    const char *in_key = files->key_file ? files->key_file : key.data ? "in memory" : in_cert;
    bool certs = netio__ossl_read_certs(id, cert);
    bool p12 = !certs && netio__ossl_read_p12(id, cert, &asking);
    if (!certs && !p12)
        return netio__ossl_config(why,
                                  "no certificate can be read, PEM, DER or PKCS#12: ", in_cert);
    if (!id->key && (!p12 || key.data))
        id->key = netio__ossl_read_key(key.data ? key : cert, &asking);
    if (!id->key || !id->leaf) {
        if (!asking.asked) return netio__ossl_config(why, "no private key can be read: ", in_key);
        return netio__ossl_config(
            why, ctx->cfg.key_password ? "wrong password for key " : "set key_password, for key ",
            in_key);
    }
    if (X509_check_private_key(id->leaf, id->key) != 1) {
        netio__ossl_clear();
        return netio__tls_say(why, NETIO_TLS_CONFIG, "key ", in_key, " does not fit certificate ",
                              in_cert, ": which must be the first of its chain", NETIO__TLS_END);
    }
    return 0;
}

static int netio__ossl_identity_open(void **out, netio_tls_ctx *ctx, netio_buf cert, netio_buf key,
                                     const netio_tls_identity *files, netio_buf *leaf,
                                     netio_tls_error *why)
{
    netio__ossl_identity *id = (netio__ossl_identity *)NETIO_MALLOC(sizeof *id);
    if (!id) return NETIO_ENOMEM;
    netio__ossl_clear();
    memset(id, 0, sizeof *id);
    int err = netio__ossl_identity_read(id, ctx, cert, key, files, why), n = -1;
    if (err == 0) n = i2d_X509(id->leaf, &id->der);
    if (err == 0 && n <= 0) err = NETIO_ENOMEM;
    if (err < 0) {
        netio__ossl_identity_close(id);
        return err;
    }
    leaf->data = id->der;
    leaf->len = (size_t)n;
    *out = id;
    return 0;
}

static int netio__ossl_site_use(void *site, void *identity, netio_buf staple, netio_tls_error *why)
{
    netio__ossl_site *s = (netio__ossl_site *)site;
    netio__ossl_identity *id = (netio__ossl_identity *)identity;
    netio__ossl_clear();
    if (SSL_CTX_use_certificate(s->ctx, id->leaf) != 1 ||
        SSL_CTX_use_PrivateKey(s->ctx, id->key) != 1 ||
        (id->chain && SSL_CTX_set1_chain(s->ctx, id->chain) != 1))
        return netio__ossl_config(why, "the library does not take the certificate", NULL);
    if (staple.len && !netio__ossl_staple_use(s, id->leaf, staple)) return NETIO_ENOMEM;
    return 0;
}

// --- a connection -------------------------------------------------------------------------------

// What the certificate is checked against. The library's own name check runs beside ours.
static bool netio__ossl_target(netio_tls *t, SSL *ssl)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    netio__tls_host host;
    if (t->server || !t->name) return true;
    if (!netio__tls_host_parse(&host, t->name, strlen(t->name))) return false;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                                               X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (host.ip_len) return X509_VERIFY_PARAM_set1_ip(param, host.ip, host.ip_len) == 1;
    return X509_VERIFY_PARAM_set1_host(param, host.name, strlen(host.name)) == 1 &&
           SSL_set_tlsext_host_name(ssl, host.name) == 1; // RFC 6066: names only, no addresses
}

static void netio__ossl_close(netio_tls *t)
{
    SSL *ssl = (SSL *)t->native;
    // Else the library takes the session of a connection that was cut off for a bad one.
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
}

static int netio__ossl_open(netio_tls *t, void *site)
{
    netio__ossl_site *s = (netio__ossl_site *)site;
    netio__ossl_clear();
    SSL *ssl = SSL_new(s->ctx);
    BIO *bio = BIO_new(s->bio);
    if (!ssl || !bio || SSL_set_app_data(ssl, (char *)t) != 1) {
        SSL_free(ssl);
        BIO_free(bio);
        return NETIO_ENOMEM;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio); // takes it
    t->native = ssl;
    netio__ossl_role(t, ssl);
    if (t->server) SSL_set_accept_state(ssl);
    else SSL_set_connect_state(ssl);
    if (!netio__ossl_target(t, ssl)) return NETIO_ENOMEM;
    if (!t->server && t->ctx->cfg.require_staple && !netio__ossl_staple_want(ssl))
        return NETIO_ENOMEM;
    return 0;
}

static int netio__ossl_handshake(netio_tls *t)
{
    netio__ossl_clear();
    int r = SSL_do_handshake((SSL *)t->native);
    return r == 1 ? 0 : netio__ossl_result(t, r);
}

static ptrdiff_t netio__ossl_read(netio_tls *t, void *buf, size_t cap)
{
    netio__ossl_clear();
    int r = SSL_read((SSL *)t->native, buf, cap < NETIO__IO_MAX ? (int)cap : (int)NETIO__IO_MAX);
    return r > 0 ? r : netio__ossl_result(t, r);
}

static ptrdiff_t netio__ossl_write(netio_tls *t, const void *data, size_t len)
{
    netio__ossl_clear();
    int r = SSL_write((SSL *)t->native, data, (int)len);
    return r > 0 ? r : netio__ossl_result(t, r);
}

static int netio__ossl_shutdown(netio_tls *t)
{
    netio__ossl_clear();
    int r = SSL_shutdown((SSL *)t->native);
    return r >= 0 ? 0 : netio__ossl_result(t, r);
}

static void netio__ossl_info(netio_tls *t, netio_tls_info *out, netio_buf *alpn)
{
    SSL *ssl = (SSL *)t->native;
    const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
    const unsigned char *name = NULL;
    unsigned len = 0;
    const char *text = cipher ? SSL_CIPHER_standard_name(cipher) : NULL;
    if (text) out->cipher = text;
    out->version = SSL_version(ssl);
    out->version_text = SSL_get_version(ssl);
    out->resumed = SSL_session_reused(ssl) == 1;
    out->psk_identity = netio__ossl_psk_used(t, ssl);
    SSL_get0_alpn_selected(ssl, &name, &len);
    alpn->data = name;
    alpn->len = len;
}

static int netio__ossl_keying(netio_tls *t, const char *label, const void *context,
                              size_t context_len, void *out, size_t len)
{
    netio__ossl_clear();
    if (SSL_export_keying_material((SSL *)t->native, (unsigned char *)out, len, label,
                                   strlen(label), (const unsigned char *)context, context_len,
                                   context != NULL) == 1)
        return 0;
    netio__ossl_clear();
    return NETIO_ETLS;
}

// clang-format off
static const netio__tls_backend netio__tls_openssl = {
    NETIO_TLS_BACKEND_OPENSSL,
    !NETIO__OSSL_BORING,
    true,
    netio__ossl_text,
    netio__ossl_random,
    netio__ossl_sha256,
    netio__ossl_site_open,
    netio__ossl_site_close,
    netio__ossl_site_trust,
    netio__ossl_site_trust_system,
    netio__ossl_identity_open,
    netio__ossl_site_use,
    netio__ossl_identity_close,
    netio__ossl_open,
    netio__ossl_close,
    netio__ossl_session_open,
    netio__ossl_session_bytes,
    netio__ossl_session_bytes_free,
    netio__ossl_session_keep,
    netio__ossl_session_free,
    netio__ossl_resume,
    netio__ossl_handshake,
    netio__ossl_read,
    netio__ossl_write,
    netio__ossl_shutdown,
    netio__ossl_info,
    netio__ossl_chain,
    netio__ossl_keying,
};
// clang-format on
#endif // NETIO__TLS_HAS_OPENSSL

//================================================================================================
// >>tls-config.c
//================================================================================================

static const netio__tls_backend *const netio__tls_backends[] = {
#if NETIO__TLS_HAS_OPENSSL
    &netio__tls_openssl,
#endif
};

static const netio__tls_backend *netio__tls_find_backend(int id)
{
    for (size_t i = 0; i < sizeof netio__tls_backends / sizeof netio__tls_backends[0]; i++)
        if (id == NETIO_TLS_BACKEND_AUTO || netio__tls_backends[i]->id == id)
            return netio__tls_backends[i];
    return NULL;
}

NETIO_API const char *netio_tls_backend(int backend)
{
    const netio__tls_backend *be = netio__tls_find_backend(backend);
    return be ? be->text() : NULL;
}

// A whole file, to be wiped and freed.
static int netio__tls_load(netio_buf *out, const char *path, netio_tls_error *why)
{
    netio__tls_queue *all = NULL;
    uint8_t piece[4096];
    int err = 0;
    out->data = NULL;
    out->len = 0;
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(piece, 1, sizeof piece, f) : 0;
    if (!f || ferror(f)) {
        const char *reason = netio_strerror(netio_error_from_os(errno));
        if (f) fclose(f);
        return netio__tls_say(why, NETIO_TLS_CONFIG, "cannot read ", path, ": ", reason,
                              NETIO__TLS_END);
    }
    for (; n && err == 0; n = fread(piece, 1, sizeof piece, f))
        err = netio__tls_queue_len(all) + n > NETIO__TLS_FILE_MAX
                  ? netio__tls_say(why, NETIO_TLS_CONFIG, path, " is too large", NETIO__TLS_END)
                  : netio__tls_queue_put(&all, piece, n);
    fclose(f);
    netio__tls_wipe(piece, sizeof piece);
    if (err == 0 && !all)
        err = netio__tls_say(why, NETIO_TLS_CONFIG, path, " is empty", NETIO__TLS_END);
    if (err < 0) {
        if (all) netio__tls_wipe(netio__tls_queue_data(all), all->len);
        NETIO_FREE(all);
        return err;
    }
    out->len = all->len;
    out->data = netio__tls_queue_take(&all);
    return 0;
}

static void netio__tls_unload(netio_buf *b)
{
    if (b->data) netio__tls_wipe((void *)(uintptr_t)b->data, b->len);
    NETIO_FREE((void *)(uintptr_t)b->data);
}

// Bytes of the user's, where 0 is a C string.
static netio_buf netio__tls_given(const void *data, size_t len)
{
    netio_buf b = {data, data && len == 0 ? strlen((const char *)data) : len};
    return b;
}

// --- trust --------------------------------------------------------------------------------------

// Where systems keep all their roots in one file, if the library's own place has none.
static const char *const netio__tls_bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // newer ones
    "/etc/ssl/ca-bundle.pem",                            // SUSE
    "/etc/ssl/cert.pem",                                 // Alpine, macOS, OpenBSD, FreeBSD
    "/usr/local/share/certs/ca-root-nss.crt",            // FreeBSD, ports
    "/etc/openssl/certs/ca-certificates.crt",            // NetBSD
};

#if NETIO__WINDOWS
// Those that Windows has fetched so far: it gets others only when its own library needs them.
static ptrdiff_t netio__tls_trust_os(netio_tls_ctx *ctx)
{
    HCERTSTORE store = CertOpenSystemStoreA(0, "ROOT");
    PCCERT_CONTEXT cert = NULL;
    ptrdiff_t count = 0;
    if (!store) return 0;
    while ((cert = CertEnumCertificatesInStore(store, cert)) != NULL)
        if (ctx->be->site_trust(ctx->sites[0].native, cert->pbCertEncoded, cert->cbCertEncoded) > 0)
            count++;
    CertCloseStore(store, 0);
    return count;
}
#else
static ptrdiff_t netio__tls_trust_os(netio_tls_ctx *ctx)
{
    ptrdiff_t count = ctx->be->site_trust_system(ctx->sites[0].native);
    for (size_t i = 0; count <= 0 && i < sizeof netio__tls_bundles / sizeof(char *); i++) {
        netio_buf file;
        if (netio__tls_load(&file, netio__tls_bundles[i], NULL) < 0) continue;
        count = ctx->be->site_trust(ctx->sites[0].native, file.data, file.len);
        netio__tls_unload(&file);
    }
    return count;
}
#endif

// A context with a certificate may be a server's, which needs no roots: then they are loaded when
// it is first used as a client.
static int netio__tls_trust_system(netio_tls_ctx *ctx, netio_tls_error *why)
{
    int err = 0;
    netio__tls_lock();
    if (ctx->system_waits && netio__tls_trust_os(ctx) <= 0)
        err = netio__tls_say(why, NETIO_TLS_CONFIG, "no trusted CA is known on this system: ",
                             "install its CA package, or set ca_file", NETIO__TLS_END);
    if (err == 0) ctx->system_waits = false;
    netio__tls_unlock();
    return err;
}

typedef struct netio__tls_trusting {
    netio_tls_ctx *ctx;
    netio__tls_queue *digest; // input of the policy's
    ptrdiff_t count;
    int err;
} netio__tls_trusting;

static void netio__tls_trust_bytes(netio__tls_trusting *g, netio_buf data)
{
    ptrdiff_t n = g->ctx->be->site_trust(g->ctx->sites[0].native, data.data, data.len);
    uint8_t sum[32];
    if (n > 0) {
        g->count += n;
        g->err = g->ctx->be->sha256(sum, data.data, data.len);
        if (g->err == 0) g->err = netio__tls_queue_put(&g->digest, sum, sizeof sum);
    } else if (n < 0) {
        g->err = (int)n;
    }
}

static void netio__tls_trust_file(void *arg,
                                  const char *path) // of a directory: others may lie there
{
    netio__tls_trusting *g = (netio__tls_trusting *)arg;
    netio_buf file;
    if (g->err < 0 || netio__tls_load(&file, path, NULL) < 0) return;
    netio__tls_trust_bytes(g, file);
    if (g->err == NETIO_EPROTO) g->err = 0;
    netio__tls_unload(&file);
}

static int netio__tls_trust_given(netio__tls_trusting *g, const char *name, netio_buf data,
                                  netio_tls_error *why)
{
    ptrdiff_t before = g->count;
    netio__tls_trust_bytes(g, data);
    if (g->err < 0 && g->err != NETIO_EPROTO) return g->err;
    if (g->err == 0 && g->count > before) return 0;
    return netio__tls_say(why, NETIO_TLS_CONFIG,
                          g->err < 0 ? "a malformed certificate is in " : "no certificate is in ",
                          name, ": it must be PEM or DER", NETIO__TLS_END);
}

static int netio__tls_trust(netio__tls_trusting *g, const netio_tls_config *cfg,
                            netio_tls_error *why)
{
    netio_buf file;
    int err = 0;
    if (cfg->ca_file) {
        err = netio__tls_load(&file, cfg->ca_file, why);
        if (err < 0) return err;
        err = netio__tls_trust_given(g, cfg->ca_file, file, why);
        netio__tls_unload(&file);
    }
    if (err == 0 && cfg->ca)
        err = netio__tls_trust_given(g, "ca", netio__tls_given(cfg->ca, cfg->ca_len), why);
    if (err == 0 && cfg->ca_dir) {
        ptrdiff_t before = g->count;
        netio__tls_each_file(cfg->ca_dir, netio__tls_trust_file, g);
        err = g->err;
        if (err == 0 && g->count == before)
            err = netio__tls_say(why, NETIO_TLS_CONFIG, "no certificate is in any file of ",
                                 cfg->ca_dir, NETIO__TLS_END);
    }
    return err;
}

// After the own certificates: they tell whether this is a server's context.
static int netio__tls_trust_rest(const netio__tls_trusting *g, const netio_tls_config *cfg,
                                 netio_tls_error *why)
{
    netio_tls_ctx *ctx = g->ctx;
    if (cfg->client_cert && !g->count && !cfg->add_system_roots)
        return netio__tls_say(why, NETIO_TLS_CONFIG, "client_cert needs ca_file, ca_dir or ca: ",
                              "who may sign the clients' certificates", NETIO__TLS_END);
    ctx->system_waits = !g->count || cfg->add_system_roots;
    bool later = (ctx->has_identity || cfg->psk || cfg->insecure_no_chain) && !cfg->client_cert;
    return later ? 0 : netio__tls_trust_system(ctx, why);
}

// --- certificates of our own --------------------------------------------------------------------

// There is room for one site per certificate.
static netio__tls_site *netio__tls_site_add(netio_tls_ctx *ctx, netio_tls_error *why, int *err)
{
    netio__tls_site *site = &ctx->sites[ctx->site_count];
    memset(site, 0, sizeof *site);
    *err =
        ctx->be->site_open(&site->native, ctx, ctx->site_count ? ctx->sites[0].native : NULL, why);
    if (*err < 0) return NULL;
    ctx->site_count++;
    return site;
}

// Where a certificate goes: with another one for the same names, else to a site of its own.
static netio__tls_site *netio__tls_site_for(netio_tls_ctx *ctx, netio__der names,
                                            netio_tls_error *why, int *err)
{
    netio__tls_site *site = &ctx->sites[0];
    if (ctx->has_identity) {
        for (size_t i = 0; i < ctx->site_count && ctx->be->pairs; i++)
            if (netio__der_is(&names, ctx->sites[i].names, ctx->sites[i].names_len))
                return &ctx->sites[i];
        site = netio__tls_site_add(ctx, why, err);
        if (!site) return NULL;
    }
    if (names.len) {
        site->names = (uint8_t *)NETIO_MALLOC(names.len);
        if (!site->names) *err = NETIO_ENOMEM;
        else memcpy(site->names, names.at, names.len);
    }
    site->names_len = names.len;
    return *err < 0 ? NULL : site;
}

static int netio__tls_identity_put(netio_tls_ctx *ctx, void *id, netio_buf leaf, netio_buf staple,
                                   netio_tls_error *why)
{
    netio__tls_findings f;
    netio__x509 x;
    uint8_t both[64];
    int err = 0;
    if (!netio__x509_parse(&x, leaf.data, leaf.len))
        return netio__tls_say(why, NETIO_TLS_CONFIG, "the certificate is malformed",
                              NETIO__TLS_END);
    memset(&f, 0, sizeof f);
    netio__tls_check_strength(&f, &x, 0);
    if (f.bits && !ctx->cfg.insecure_allow_tls_1_0)
        return netio__tls_say(why, NETIO_TLS_CONFIG,
                              "the certificate is too weak for anybody: RSA ",
                              "below 2048 bits, EC below 224, or SHA-1", NETIO__TLS_END);
    netio__tls_site *site = netio__tls_site_for(ctx, x.names, why, &err);
    if (!site) return err;
    ctx->has_identity = true;
    memcpy(both, ctx->identity, 32);
    err = ctx->be->sha256(both + 32, leaf.data, leaf.len);
    if (err == 0) err = ctx->be->sha256(ctx->identity, both, sizeof both);
    if (err == 0) err = ctx->be->site_use(site->native, id, staple, why);
    return err;
}

// RFC 6960 section 4.2.1: a sequence of a status, 0 for success, and the answer.
static bool netio__tls_is_ocsp(netio_buf staple)
{
    netio__der d, whole, status, answer;
    d.at = (const uint8_t *)staple.data;
    d.len = staple.len;
    return netio__der_take(&d, NETIO__DER_SEQUENCE, &whole) && d.len == 0 &&
           netio__der_take(&whole, 0x0A, &status) && netio__der_is(&status, "", 1) &&
           netio__der_take(&whole, 0xA0, &answer);
}

static int netio__tls_identity_add(netio_tls_ctx *ctx, const netio_tls_identity *from,
                                   netio_tls_error *why)
{
    netio_buf cert_file = {NULL, 0}, key_file = {NULL, 0}, staple = {NULL, 0}, leaf;
    netio_buf cert = netio__tls_given(from->cert, from->cert_len);
    netio_buf key = netio__tls_given(from->key, from->key_len);
    void *id = NULL;
    int err = 0;
    if (from->cert_file) err = netio__tls_load(&cert_file, from->cert_file, why);
    if (err == 0 && from->key_file) err = netio__tls_load(&key_file, from->key_file, why);
    if (err == 0 && from->staple_file) err = netio__tls_load(&staple, from->staple_file, why);
    if (err == 0 && staple.len && !netio__tls_is_ocsp(staple))
        err = netio__tls_say(why, NETIO_TLS_CONFIG, from->staple_file,
                             " is no OCSP answer in DER that says yes", NETIO__TLS_END);
    if (cert_file.data) cert = cert_file;
    if (key_file.data) key = key_file;
    if (err == 0) err = ctx->be->identity_open(&id, ctx, cert, key, from, &leaf, why);
    if (err == 0) err = netio__tls_identity_put(ctx, id, leaf, staple, why);
    if (id) ctx->be->identity_close(id);
    netio__tls_unload(&cert_file);
    netio__tls_unload(&key_file);
    netio__tls_unload(&staple);
    return err;
}

static int netio__tls_identities(netio_tls_ctx *ctx, const netio_tls_config *cfg,
                                 netio_tls_error *why)
{
    netio_tls_identity one;
    int err = 0;
    memset(&one, 0, sizeof one);
    one.cert_file = cfg->cert_file;
    one.key_file = cfg->key_file;
    one.cert = cfg->cert;
    one.key = cfg->key;
    one.cert_len = cfg->cert_len;
    one.key_len = cfg->key_len;
    one.staple_file = cfg->staple_file;
    if (one.cert_file || one.cert) err = netio__tls_identity_add(ctx, &one, why);
    else if (one.key_file || one.key || cfg->more_count)
        err = netio__tls_say(why, NETIO_TLS_CONFIG, "cert_file or cert is missing", NETIO__TLS_END);
    for (size_t i = 0; i < cfg->more_count && err == 0; i++)
        err = netio__tls_identity_add(ctx, &cfg->more[i], why);
    return err;
}

// --- a context ----------------------------------------------------------------------------------

static int netio__tls_alpn_copy(netio_tls_ctx *ctx, const netio_tls_config *cfg,
                                netio_tls_error *why)
{
    netio__tls_queue *wire = NULL;
    int err = 0;
    for (size_t i = 0; i < cfg->alpn_count && err == 0; i++) {
        size_t len = cfg->alpn[i] ? strlen(cfg->alpn[i]) : 0;
        uint8_t head = (uint8_t)len;
        if (len == 0 || len > 255 || i >= 32)
            err = netio__tls_say(why, NETIO_TLS_CONFIG, "alpn: at most 32 names of 1 to 255 bytes",
                                 NETIO__TLS_END);
        if (err == 0) err = netio__tls_queue_put(&wire, &head, 1);
        if (err == 0) err = netio__tls_queue_put(&wire, cfg->alpn[i], len);
    }
    ctx->alpn_len = netio__tls_queue_len(wire);
    ctx->alpn = netio__tls_queue_take(&wire);
    return err;
}

// The name, the cipher key and the MAC key of tickets, from 32 secret bytes.
static int netio__tls_ticket_derive(netio_tls_ctx *ctx, netio__tls_ticket *out,
                                    const uint8_t secret[32])
{
    uint8_t in[33], name[32];
    int err;
    memcpy(in, secret, 32);
    in[32] = 0;
    err = ctx->be->sha256(name, in, 33);
    memcpy(out->name, name, sizeof out->name);
    in[32] = 1;
    if (err == 0) err = ctx->be->sha256(out->cipher_key, in, 33);
    in[32] = 2;
    if (err == 0) err = ctx->be->sha256(out->mac_key, in, 33);
    netio__tls_wipe(in, sizeof in);
    return err;
}

static int netio__tls_tickets_make(netio_tls_ctx *ctx, const netio_tls_config *cfg)
{
    size_t count = cfg->ticket_key_count ? cfg->ticket_key_count : 2;
    int err = 0;
    if (count > SIZE_MAX / sizeof *ctx->tickets) return NETIO_ENOMEM;
    ctx->tickets = (netio__tls_ticket *)NETIO_MALLOC(count * sizeof *ctx->tickets);
    if (!ctx->tickets) return NETIO_ENOMEM;
    ctx->ticket_count = count;
    for (size_t i = 0; i < cfg->ticket_key_count && err == 0; i++)
        err = netio__tls_ticket_derive(ctx, &ctx->tickets[i], cfg->ticket_keys[i]);
    if (cfg->ticket_key_count) return err;
    ctx->tickets_ms = netio_now_ms() | 1; // not 0
    return ctx->be->random(ctx->tickets, 2 * sizeof *ctx->tickets);
}

static int netio__tls_policy(netio_tls_ctx *ctx, netio__tls_queue **in)
{
    const netio_tls_config *cfg = &ctx->cfg;
    uint8_t flags[10];
    const char *text = ctx->be->text();
    int err;
    flags[0] = ctx->system_waits || cfg->add_system_roots || !*in;
    flags[1] = (uint8_t)cfg->client_cert;
    flags[2] =
        (uint8_t)(cfg->insecure_no_chain << 2 | cfg->insecure_no_name << 1 | cfg->insecure_no_time);
    flags[3] = cfg->require_staple;
    flags[4] = cfg->on_verify != NULL;
    flags[5] = (uint8_t)cfg->min_version;
    flags[6] = (uint8_t)cfg->max_version;
    flags[7] = (uint8_t)ctx->be->id;
    flags[8] = (uint8_t)cfg->pin_count;
    flags[9] = (uint8_t)ctx->alpn_len;
    err = netio__tls_queue_put(in, flags, sizeof flags);
    if (err == 0) err = netio__tls_queue_put(in, text, strlen(text));
    if (err == 0) err = netio__tls_queue_put(in, ctx->alpn, ctx->alpn_len);
    if (err == 0) err = netio__tls_queue_put(in, ctx->pins, cfg->pin_count * 32);
    if (err < 0) return err;
    return ctx->be->sha256(ctx->policy, netio__tls_queue_data(*in), (*in)->len);
}

// What the configuration says by itself, before any file is read.
static int netio__tls_settings(netio_tls_ctx *ctx, netio_tls_error *why)
{
    netio_tls_config *cfg = &ctx->cfg;
    int lowest = cfg->insecure_allow_tls_1_0 ? NETIO_TLS_1_0 : NETIO_TLS_1_2;
    if (!cfg->min_version) cfg->min_version = NETIO_TLS_1_2;
    if (!cfg->max_version) cfg->max_version = NETIO_TLS_1_3;
    if (!cfg->peer_chain_max) cfg->peer_chain_max = 64 << 10;
    if (!cfg->session_max) cfg->session_max = 32;
    // Where 1.2 is the floor there is nothing to allow, and 1.2 stays as strict as it is.
    if (cfg->min_version >= NETIO_TLS_1_2) cfg->insecure_allow_tls_1_0 = false;
    if (cfg->min_version < lowest && cfg->min_version >= NETIO_TLS_1_0)
        return netio__tls_say(why, NETIO_TLS_CONFIG, "min_version below TLS 1.2 needs ",
                              "insecure_allow_tls_1_0", NETIO__TLS_END);
    if (cfg->min_version < lowest || cfg->max_version < cfg->min_version ||
        cfg->max_version > NETIO_TLS_1_3) {
        netio__tls_say(why, NETIO_TLS_CONFIG, "no such range of versions", NETIO__TLS_END);
        return cfg->min_version > NETIO_TLS_1_3 ? NETIO_ENOTSUP : NETIO_ETLS;
    }
    if (cfg->peer_chain_max > 16 << 20 || (unsigned)cfg->client_cert > 2)
        return netio__tls_say(why, NETIO_TLS_CONFIG, "peer_chain_max or client_cert out of range",
                              NETIO__TLS_END);
    return 0;
}

static int netio__tls_pins_copy(netio_tls_ctx *ctx, const netio_tls_config *cfg)
{
    if (!cfg->pin_count) return 0;
    if (cfg->pin_count > SIZE_MAX / 32) return NETIO_ENOMEM;
    ctx->pins = (uint8_t(*)[32])NETIO_MALLOC(cfg->pin_count * 32);
    if (!ctx->pins) return NETIO_ENOMEM;
    memcpy(ctx->pins, cfg->pins, cfg->pin_count * 32);
    return 0;
}

static int netio__tls_ctx_fill(netio_tls_ctx *ctx, const netio_tls_config *cfg,
                               netio_tls_error *why)
{
    netio__tls_trusting trusting;
    int err = netio__tls_settings(ctx, why);
    if (err == 0) err = netio__tls_pins_copy(ctx, cfg);
    if (err == 0) err = netio__tls_alpn_copy(ctx, cfg, why);
    if (err == 0) err = netio__tls_tickets_make(ctx, cfg);
    if (err < 0) return err;
    if (cfg->more_count > SIZE_MAX / sizeof *ctx->sites - 1) return NETIO_ENOMEM;
    ctx->sites = (netio__tls_site *)NETIO_MALLOC((cfg->more_count + 1) * sizeof *ctx->sites);
    if (!ctx->sites) return NETIO_ENOMEM;
    if (!netio__tls_site_add(ctx, why, &err)) return err;
    memset(&trusting, 0, sizeof trusting);
    trusting.ctx = ctx;
    err = netio__tls_trust(&trusting, cfg, why);
    if (err == 0) err = netio__tls_identities(ctx, cfg, why);
    if (err == 0) err = netio__tls_trust_rest(&trusting, cfg, why);
    if (err == 0) err = netio__tls_policy(ctx, &trusting.digest);
    NETIO_FREE(trusting.digest);
    return err;
}

static void netio__tls_ctx_free(netio_tls_ctx *ctx)
{
    for (size_t i = 0; i < ctx->site_count; i++) {
        ctx->be->site_close(ctx->sites[i].native);
        NETIO_FREE(ctx->sites[i].names);
    }
    if (ctx->tickets) netio__tls_wipe(ctx->tickets, ctx->ticket_count * sizeof *ctx->tickets);
    netio__tls_saved_trim(ctx, 0);
    NETIO_FREE(ctx->tickets);
    NETIO_FREE(ctx->pins);
    NETIO_FREE(ctx->alpn);
    NETIO_FREE(ctx->sites);
    NETIO_FREE(ctx);
}

NETIO_API int netio_tls_ctx_create(netio_tls_ctx **out, const netio_tls_config *cfg,
                                   netio_tls_error *why)
{
    netio__tls_error_clear(why);
    if (!out || !cfg || (cfg->pin_count && !cfg->pins) || (cfg->alpn_count && !cfg->alpn) ||
        (cfg->more_count && !cfg->more) || (cfg->ticket_key_count && !cfg->ticket_keys))
        return NETIO_EINVAL;
    const netio__tls_backend *be = netio__tls_find_backend(cfg->backend);
    if (!be) {
        netio__tls_say(why, NETIO_TLS_CONFIG, "this backend is not in the build", NETIO__TLS_END);
        return NETIO_ENOTSUP;
    }
    netio_tls_ctx *ctx = (netio_tls_ctx *)NETIO_MALLOC(sizeof *ctx);
    if (!ctx) return NETIO_ENOMEM;
    memset(ctx, 0, sizeof *ctx);
    ctx->be = be;
    ctx->refs = 1;
    ctx->cfg = *cfg;
    int err = netio__tls_ctx_fill(ctx, cfg, why);
    if (err < 0) {
        netio__tls_ctx_free(ctx);
        if (why && !why->code)
            netio__tls_say(why, NETIO_TLS_CONFIG, netio_strerror(err), NETIO__TLS_END);
        return err;
    }
    // What was only borrowed must not be looked at again.
    ctx->cfg.ca_file = ctx->cfg.ca_dir = ctx->cfg.cert_file = ctx->cfg.key_file = NULL;
    ctx->cfg.ca = ctx->cfg.cert = ctx->cfg.key = NULL;
    ctx->cfg.staple_file = ctx->cfg.ciphers = NULL;
    ctx->cfg.more = NULL;
    ctx->cfg.alpn = NULL;
    ctx->cfg.ticket_keys = ctx->cfg.pins = NULL;
    *out = ctx;
    return 0;
}

NETIO_API netio_tls_ctx *netio_tls_ctx_ref(netio_tls_ctx *ctx)
{
    if (!ctx) return NULL; // as a filter it lets nobody in
    netio__tls_lock();
    ctx->refs++;
    netio__tls_unlock();
    return ctx;
}

NETIO_API void netio_tls_ctx_unref(netio_tls_ctx *ctx)
{
    if (!ctx) return;
    netio__tls_lock();
    int left = --ctx->refs;
    netio__tls_unlock();
    if (left == 0) netio__tls_ctx_free(ctx);
}

//================================================================================================
// >>tls-engine.c
//================================================================================================

static void netio__tls_free(netio_tls *t)
{
    if (t->native) t->ctx->be->close(t);
    if (t->ctx != t->first) netio_tls_ctx_unref(t->ctx);
    netio_tls_ctx_unref(t->first);
    NETIO_FREE(t->spill);
    NETIO_FREE(t->out);
    NETIO_FREE(t->error);
    NETIO_FREE(t->name);
    NETIO_FREE(t->psk_identity);
    netio__tls_known_free(t->known);
    NETIO_FREE(t);
}

static netio_tls *netio__tls_new(netio_tls_ctx *ctx, bool server)
{
    netio_tls *t = (netio_tls *)NETIO_MALLOC(sizeof *t);
    if (!t) return NULL;
    memset(t, 0, sizeof *t);
    t->ctx = t->first = netio_tls_ctx_ref(ctx);
    t->server = server;
    t->refs = 1;
    t->alert_in = t->alert_out = -1;
    return t;
}

// As netio_tls_client; `why` (may be NULL) says what is wrong with the arguments.
static int netio__tls_client(netio_tls **out, netio_tls_ctx *ctx, const char *server_name,
                             const netio_tls_client_opts *opts, netio_tls_error *why)
{
    netio__tls_host host;
    bool named = server_name && server_name[0];
    if (!out || !ctx) return NETIO_EINVAL;
    if (named ? !netio__tls_host_parse(&host, server_name, strlen(server_name))
              : !ctx->cfg.insecure_no_name && !ctx->cfg.psk) {
        netio__tls_say(why, NETIO_TLS_CONFIG, named ? server_name : "no server_name",
                       named ? " is no host name that a certificate could be for"
                             : ": whose certificate should it be?",
                       NETIO__TLS_END);
        return NETIO_EINVAL;
    }
    bool trusts = !ctx->cfg.insecure_no_chain && !ctx->cfg.psk;
    int err = trusts ? netio__tls_trust_system(ctx, why) : 0;
    if (err < 0) return err;
    netio_tls *t = netio__tls_new(ctx, false);
    if (!t) return NETIO_ENOMEM;
    if (named) t->name = netio__tls_copy_text(host.name, strlen(host.name));
    err = named && !t->name ? NETIO_ENOMEM : ctx->be->open(t, ctx->sites[0].native);
    if (err == 0)
        err = opts && opts->session ? netio__tls_session_use(t, opts->session, opts->session_len)
                                    : netio__tls_session_find(t);
    if (err == 0) *out = t;
    else netio__tls_free(t);
    return err;
}

NETIO_API int netio_tls_client(netio_tls **out, netio_tls_ctx *ctx, const char *server_name,
                               const netio_tls_client_opts *opts)
{
    return netio__tls_client(out, ctx, server_name, opts, NULL);
}

NETIO_API int netio_tls_server(netio_tls **out, netio_tls_ctx *ctx)
{
    if (!out || !ctx) return NETIO_EINVAL;
    if (!ctx->has_identity && !ctx->cfg.psk && !ctx->cfg.on_sni) return NETIO_ENOENT;
    netio_tls *t = netio__tls_new(ctx, true);
    if (!t) return NETIO_ENOMEM;
    int err = ctx->be->open(t, ctx->sites[0].native);
    if (err == 0) *out = t;
    else netio__tls_free(t);
    return err;
}

NETIO_API void netio_tls_destroy(netio_tls *t)
{
    if (t) netio__tls_free(t);
}

NETIO_API int netio_tls_feed(netio_tls *t, const void *data, size_t len)
{
    if (!t || (!data && len)) return NETIO_EINVAL;
    if (netio__tls_queue_len(t->spill) + len > NETIO__TLS_IN_MAX) return NETIO_ENOBUFS;
    return netio__tls_queue_put(&t->spill, data, len);
}

NETIO_API void netio_tls_feed_end(netio_tls *t)
{
    if (t) t->end = true;
}

NETIO_API netio_buf netio_tls_out(const netio_tls *t)
{
    netio_buf b = {NULL, 0};
    if (t && t->out) {
        b.data = netio__tls_queue_data(t->out);
        b.len = t->out->len;
    }
    return b;
}

NETIO_API void netio_tls_out_drop(netio_tls *t, size_t len)
{
    if (t && t->out) netio__tls_queue_drop(&t->out, len < t->out->len ? len : t->out->len);
}

static size_t netio__tls_have(const netio_tls *t)
{
    return netio__tls_queue_len(t->spill) + t->in_len;
}

// What a call of the backend comes to. The rule about ends is here, as libraries differ: whatever
// one says after the transport has ended, without close_notify the peer was cut off.
static ptrdiff_t netio__tls_outcome(netio_tls *t, ptrdiff_t n)
{
    if (n >= 0) return n;
    if (t->failed) return t->failed;
    if (n == NETIO_EOF) {
        t->closed = true;
        return t->done ? (ptrdiff_t)NETIO_EOF
                       : netio__tls_fail(
                             t, netio__tls_say(netio__tls_error_of(t), NETIO_TLS_PROTOCOL,
                                               "the peer ended the handshake", NETIO__TLS_END));
    }
    if (t->saw_end && t->done && t->ctx->cfg.insecure_allow_truncation) {
        t->closed = true;
        return NETIO_EOF;
    }
    if (t->saw_end) {
        netio__tls_say(netio__tls_error_of(t), NETIO_TLS_CUT_OFF,
                       t->done ? "the connection ended without close_notify: data may be missing"
                       : t->hello
                           ? "the peer ended the connection during the handshake"
                           : "the peer ended the connection at once: does it speak TLS here?",
                       NETIO__TLS_END);
        return netio__tls_fail(t, NETIO_ETRUNCATED);
    }
    if (n == NETIO_EAGAIN) return n;
    return netio__tls_fail(t, (int)n);
}

static bool netio__tls_alpn_known(const netio_tls_ctx *ctx, netio_buf name)
{
    for (size_t at = 0; at < ctx->alpn_len; at += 1u + ctx->alpn[at])
        if (ctx->alpn[at] == name.len && memcmp(ctx->alpn + at + 1, name.data, name.len) == 0)
            return true;
    return false;
}

// A client that resumes: its certificate may have expired since it was verified.
static int netio__tls_still_valid(netio_tls *t, netio__tls_findings *f,
                                  const netio__tls_chain *chain)
{
    netio__x509 x;
    if (!netio__x509_parse(&x, chain->certs[0].data, chain->certs[0].len)) return NETIO_EPROTO;
    if (x.not_after < netio__tls_time(&t->ctx->cfg) && !t->ctx->cfg.insecure_no_time)
        netio__tls_find(f, NETIO_TLS_EXPIRED, 0);
    return 0;
}

// The handshake is done for the library; is it for us? Nothing has been delivered yet.
static int netio__tls_accept(netio_tls *t)
{
    const netio_tls_config *cfg = &t->ctx->cfg;
    netio_tls_info info;
    netio_buf alpn = {NULL, 0};
    netio__tls_chain chain = {NULL, 0};
    netio__tls_findings f;
    int err = 0;
    memset(&info, 0, sizeof info);
    memset(&f, 0, sizeof f);
    t->ctx->be->info(t, &info, &alpn);
    if (info.version < cfg->min_version || info.version > cfg->max_version)
        return netio__tls_say(netio__tls_error_of(t), NETIO_TLS_VERSION, "the library agreed on ",
                              info.version_text ? info.version_text : "no version",
                              ", which is not allowed", NETIO__TLS_END);
    if (alpn.len && !netio__tls_alpn_known(t->ctx, alpn))
        return netio__tls_say(netio__tls_error_of(t), NETIO_TLS_ALPN,
                              "the server chose a protocol that we did ", "not offer",
                              NETIO__TLS_END);
    if (!info.psk_identity) { // offered, but not what was agreed on: it proves nothing
        NETIO_FREE(t->psk_identity);
        t->psk_identity = NULL;
    }
    if (t->psk_identity || info.resumed) t->checked = true;
    if (!t->checked && (!t->server || cfg->client_cert == NETIO_TLS_CLIENT_CERT_REQUIRED)) {
        return netio__tls_say(netio__tls_blame(t, NETIO_TLS_NO_CERT), NETIO_TLS_VERIFY,
                              "the peer showed no certificate", NETIO__TLS_END);
    }
    if (!info.resumed || t->psk_identity || !(t->server || cfg->on_verify)) return 0;
    err = t->ctx->be->chain(t, &chain);
    if (err == 0 && chain.count && t->server) err = netio__tls_still_valid(t, &f, &chain);
    if (err == 0 && chain.count && cfg->on_verify && !f.bits)
        err = netio__tls_ask_user(t, &f, &chain);
    if (err == 0 && f.bits) {
        netio__tls_verify_say(t, &f, f.bits, &chain);
        err = NETIO_ETLS;
    }
    NETIO_FREE(chain.certs);
    return err;
}

NETIO_API int netio_tls_handshake(netio_tls *t)
{
    if (!t) return NETIO_EINVAL;
    if (t->failed) return t->failed;
    if (t->done) return 0;
    size_t had;
    int err;
    do { // some libraries ask for more after each message, though they have it
        had = netio__tls_have(t);
        err = (int)netio__tls_outcome(t, t->ctx->be->handshake(t));
    } while (err == NETIO_EAGAIN && netio__tls_have(t) && netio__tls_have(t) < had);
    if (err < 0) return err;
    err = netio__tls_accept(t);
    if (err < 0) { // too late for an alert of the library's: an end at least
        t->ctx->be->shutdown(t);
        return netio__tls_fail(t, err);
    }
    t->done = true;
    return 0;
}

NETIO_API ptrdiff_t netio_tls_read(netio_tls *t, void *buf, size_t cap)
{
    if (!t || (!buf && cap)) return NETIO_EINVAL;
    if (t->closed && !t->failed) return NETIO_EOF;
    int err = netio_tls_handshake(t);
    if (err < 0 || cap == 0) return err;
    size_t had;
    ptrdiff_t n;
    do {
        had = netio__tls_have(t);
        n = netio__tls_outcome(t, t->ctx->be->read(t, buf, cap));
    } while (n == NETIO_EAGAIN && netio__tls_have(t) && netio__tls_have(t) < had);
    if (n > 0) t->useless = 0;
    return n;
}

NETIO_API ptrdiff_t netio_tls_write(netio_tls *t, const void *data, size_t len)
{
    const uint8_t *from = (const uint8_t *)data;
    size_t done = 0;
    if (!t || (!data && len)) return NETIO_EINVAL;
    if (t->shut) return NETIO_EPIPE;
    int err = netio_tls_handshake(t);
    if (err < 0) return err;
    while (done < len && netio__tls_queue_len(t->out) < NETIO__TLS_OUT_MARK) {
        size_t n = len - done;
        if (n > NETIO__TLS_SEND) n = NETIO__TLS_SEND;
        ptrdiff_t r = netio__tls_outcome(t, t->ctx->be->write(t, from + done, n));
        if (r < 0) return r;
        done += (size_t)r;
    }
    return done || !len ? (ptrdiff_t)done : (ptrdiff_t)NETIO_ENOBUFS;
}

#if NETIO__TLS_HAS_STREAM || NETIO__TLS_HAS_LOOP
// Bytes of the peer that stay where they are until the library wants them.
static void netio__tls_lend(netio_tls *t, const void *data, size_t len)
{
    t->in = (const uint8_t *)data;
    t->in_len = len;
}

// Write pieces as if they were one: small ones are gathered, so that they leave in full records.
// Returns how many bytes were taken; an error only if that is none.
static ptrdiff_t netio__tls_writev(netio_tls *t, const netio_buf *bufs, size_t count)
{
    uint8_t record[NETIO__TLS_SEND];
    size_t have = 0;
    ptrdiff_t total = 0, n = 0;
    for (size_t i = 0; i < count && n >= 0; i++) {
        const uint8_t *at = (const uint8_t *)bufs[i].data;
        for (size_t left = bufs[i].len, k; left && n >= 0; at += k, left -= k) {
            bool last = i + 1 == count && left <= sizeof record - have;
            bool whole = have == 0 && (last || left >= sizeof record);
            k = left < sizeof record - have ? left : sizeof record - have;
            if (!whole) memcpy(record + have, at, k);
            have += k;
            if (!last && have < sizeof record) continue;
            n = netio_tls_write(t, whole ? at : record, have);
            if (n > 0) total += n;
            have = 0;
        }
    }
    if (have && n >= 0) { // the last piece was empty
        n = netio_tls_write(t, record, have);
        if (n > 0) total += n;
    }
    return total ? total : n;
}
#endif

NETIO_API int netio_tls_shutdown(netio_tls *t)
{
    int err = netio_tls_handshake(t);
    if (err < 0 || t->shut) return err;
    t->shut = true;
    return (int)netio__tls_outcome(t, t->ctx->be->shutdown(t));
}

NETIO_API int netio_tls_get_info(netio_tls *t, netio_tls_info *out)
{
    netio__tls_chain chain = {NULL, 0};
    int err = 0;
    if (!out) return NETIO_EINVAL;
    if (!t) return NETIO_ENOENT;
    if (!t->known || (t->done && !t->known->whole)) {
        netio__tls_known *fresh = NULL;
        if (t->done) err = t->ctx->be->chain(t, &chain);
        if (err == 0) err = netio__tls_know(&fresh, t, &chain);
        NETIO_FREE(chain.certs);
        if (err < 0) return err;
        fresh->whole = t->done;
        if (t->known) { // what it has lent so far stays where it is
            t->known->certs = fresh->certs;
            t->known->count = fresh->count;
            t->known->whole = fresh->whole;
            NETIO_FREE(fresh);
        } else {
            t->known = fresh;
        }
    }
    netio__tls_show(t, t->known, out);
    if (!t->done) out->version = 0;
    return 0;
}

NETIO_API int netio_tls_get_error(const netio_tls *t, netio_tls_error *out)
{
    if (!out) return NETIO_EINVAL;
    if (!t || !t->failed) return NETIO_ENOENT;
    if (t->error) *out = *t->error;
    else netio__tls_error_clear(out);
    out->alert_in = t->alert_in;
    out->alert_out = t->alert_out;
    if (!out->code) {
        out->code = NETIO_TLS_BACKEND;
        netio__text_z(out->text, sizeof out->text, 0, netio_strerror(t->failed));
    }
    return 0;
}

NETIO_API int netio_tls_export(netio_tls *t, const char *label, const void *context,
                               size_t context_len, void *out, size_t len)
{
    if (!t || !label || !out || (!context && context_len)) return NETIO_EINVAL;
    if (t->failed) return t->failed;
    if (!t->done) return NETIO_EAGAIN;
    return t->ctx->be->keying(t, label, context, context_len, out, len);
}

#if NETIO__TLS_HAS_STREAM
//================================================================================================
// >>tls-stream.c
//
// Receiving takes the socket's bytes in large pieces; the piece is lent to the engine and freed
// when it is used up, so that a stream that waits owns no buffer.
//================================================================================================

enum { NETIO__TLS_PIECE = 32 << 10, NETIO__TLS_CLOSE_MS = 2000 };

typedef struct netio__tls_stream {
    netio_stream under;
    netio_socket socket; // to wait for, if that is all there is below
    netio_tls *t;
    uint8_t *piece;
    bool unheard; // something was sent, and nothing has come since
} netio__tls_stream;

// Send what waits. With timeout 0 what fits now; NETIO_EAGAIN then says that some is left.
static int netio__tls_flush(netio__tls_stream *s, int timeout_ms)
{
    netio_buf out = netio_tls_out(s->t);
    size_t done = 0;
    if (!out.len) return 0;
    int err = netio_stream_send_all(&s->under, out.data, out.len, &done, timeout_ms);
    netio_tls_out_drop(s->t, done);
    return err;
}

// More bytes for the engine, or their end. Meanwhile what waits to be sent goes on, where the
// stream has a socket: the peer may wait for it.
static int netio__tls_fill(netio__tls_stream *s, netio__patience *p)
{
    int left = netio__patience_left(p);
    if (s->socket != NETIO_INVALID_SOCKET) {
        unsigned more = netio_tls_out(s->t).len ? (unsigned)NETIO_EV_WRITE : 0u;
        int got = netio__wait(s->socket, NETIO_EV_READ | more, p);
        if (got < 0) return got;
        if (got & NETIO_EV_WRITE) {
            int err = netio__tls_flush(s, 0);
            if (err < 0 && err != NETIO_EAGAIN) return err;
        }
        if (!(got & NETIO_EV_READ)) return 0;
        left = 0;
    }
    if (!s->piece) s->piece = (uint8_t *)NETIO_MALLOC(NETIO__TLS_PIECE);
    if (!s->piece) return NETIO_ENOMEM;
    ptrdiff_t n = netio_stream_recv(&s->under, s->piece, NETIO__TLS_PIECE, left);
    if (n > 0) netio__tls_lend(s->t, s->piece, (size_t)n);
    else if (n == NETIO_EOF) netio_tls_feed_end(s->t);
    else if (n != NETIO_EAGAIN || s->socket == NETIO_INVALID_SOCKET) return (int)n;
    return 0;
}

static void netio__tls_settle(netio__tls_stream *s)
{
    if (s->t->in_len) return;
    NETIO_FREE(s->piece);
    s->piece = NULL;
}

static ptrdiff_t netio__tls_stream_recv(void *self, void *buf, size_t cap, int timeout_ms)
{
    netio__tls_stream *s = (netio__tls_stream *)self;
    netio__patience p = netio__patient(timeout_ms);
    ptrdiff_t n;
    for (;;) {
        n = netio_tls_read(s->t, buf, cap);
        int err = netio__tls_flush(s, 0);
        if (n != NETIO_EAGAIN) break;
        if (err < 0 && err != NETIO_EAGAIN) n = err;
        else if (err == NETIO_EAGAIN && s->socket == NETIO_INVALID_SOCKET)
            err = netio__tls_flush(s, netio__patience_left(&p));
        if (n == NETIO_EAGAIN) err = netio__tls_fill(s, &p);
        if (err < 0) {
            n = err;
            break;
        }
    }
    netio__tls_settle(s);
    if (n > 0) s->unheard = false;
    return n;
}

static int netio__tls_stream_handshake(netio__tls_stream *s, netio__patience *p)
{
    int err;
    while ((err = netio_tls_handshake(s->t)) == NETIO_EAGAIN) {
        err = netio__tls_flush(s, netio__patience_left(p));
        if (err == 0) err = netio__tls_fill(s, p);
        if (err < 0) break;
    }
    int sent = netio__tls_flush(s, err < 0 ? 0 : netio__patience_left(p)); // an alert, if it failed
    netio__tls_settle(s);
    if (err == 0) err = sent;
    if (err == NETIO_EAGAIN) err = netio__patience_over(p);
    return err;
}

static ptrdiff_t netio__tls_stream_sendv(void *self, const netio_buf *bufs, size_t count,
                                         int timeout_ms)
{
    netio__tls_stream *s = (netio__tls_stream *)self;
    netio__patience p = netio__patient(timeout_ms);
    int err = netio__tls_flush(s, netio__patience_left(&p));
    if (err < 0) return err;
    ptrdiff_t total = netio__tls_writev(s->t, bufs, count);
    if (total < 0) return total;
    s->unheard = true;
    // From here on it is ours: that time runs out is no failure.
    err = netio__tls_flush(s, netio__patience_left(&p));
    return err < 0 && err != NETIO_EAGAIN && err != NETIO_ETIMEDOUT ? err : total;
}

static int netio__tls_stream_shutdown(void *self, int timeout_ms)
{
    netio__tls_stream *s = (netio__tls_stream *)self;
    int err = netio_tls_shutdown(s->t);
    return err < 0 ? err : netio__tls_flush(s, timeout_ms);
}

// A socket that is closed with unread bytes resets the connection, and what the OS has not yet sent
// is lost. With TLS 1.3 there are such bytes even if the peer never said anything: its tickets. So
// whoever sent last waits until the peer has ended, too.
static int netio__tls_stream_close(void *self)
{
    netio__tls_stream *s = (netio__tls_stream *)self;
    int64_t by = netio_deadline(NETIO__TLS_CLOSE_MS);
    uint8_t drop[1024];
    netio_tls_shutdown(s->t);
    int err = netio__tls_flush(s, NETIO__TLS_CLOSE_MS);
    if (err == 0 && s->unheard && !s->t->closed && netio_stream_shutdown(&s->under, 0) == 0)
        while (netio_stream_recv(&s->under, drop, sizeof drop, netio_deadline_left(by)) > 0)
            if (netio_deadline_left(by) == 0) break;
    err = netio_stream_close(&s->under);
    netio_tls_destroy(s->t);
    NETIO_FREE(s->piece);
    NETIO_FREE(s);
    return err;
}

static const netio_stream_ops netio__tls_stream_ops = {
    netio__tls_stream_recv, netio__tls_stream_sendv, netio__tls_stream_shutdown,
    netio__tls_stream_close};

// The record of a failed call, whatever failed: TLS, the network, memory.
static int netio__tls_explain(netio_tls_error *why, const netio_tls *t, int err, const char *where)
{
    if (!why || why->code || err == 0) return err;
    if (netio_tls_get_error(t, why) == 0) return err;
    size_t at = netio__text_z(why->text, sizeof why->text, 0, where);
    netio__text_z(why->text, sizeof why->text, at, netio_strerror(err));
    return err;
}

NETIO_API int netio_tls_wrap(netio_stream *out, netio_stream *under, const char *server_name,
                             netio_tls_ctx *ctx, netio_tls_error *why,
                             const netio_tls_client_opts *opts, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    netio_tls *t = NULL;
    netio__tls_error_clear(why);
    if (!out || !under || !under->ops || !ctx) return NETIO_EINVAL;
    int err = server_name ? netio__tls_client(&t, ctx, server_name, opts, why)
                          : netio_tls_server(&t, ctx);
    if (err < 0) return netio__tls_explain(why, NULL, err, "TLS: ");
    netio__tls_stream *s = (netio__tls_stream *)NETIO_MALLOC(sizeof *s);
    if (s) {
        memset(s, 0, sizeof *s);
        s->under = *under;
        s->socket = netio_stream_from_socket(under->socket).ops == under->ops
                        ? under->socket
                        : NETIO_INVALID_SOCKET;
        s->t = t;
        if (timeout_ms > 0) netio__patience_left(&p); // the deadline begins now
        err = netio__tls_stream_handshake(s, &p);
    }
    if (!s || err < 0) {
        err = netio__tls_explain(why, t, s ? err : NETIO_ENOMEM, "TLS handshake: ");
        netio_tls_destroy(t);
        if (s) NETIO_FREE(s->piece);
        NETIO_FREE(s);
        return err;
    }
    memset(under, 0, sizeof *under); // which may be *out
    under->socket = NETIO_INVALID_SOCKET;
    out->ops = &netio__tls_stream_ops;
    out->self = s;
    out->socket = s->under.socket;
    return 0;
}

NETIO_API int netio_tls_connect(netio_stream *out, const char *address, netio_tls_ctx *ctx,
                                netio_tls_error *why, const netio_tls_client_opts *opts,
                                int timeout_ms)
{
    int64_t by = netio_deadline(timeout_ms);
    netio_buf host, port;
    netio_socket s;
    char name[256] = "";
    netio__tls_error_clear(why);
    if (!out || !address || !ctx) return NETIO_EINVAL;
    if (netio_addr_split(&host, &port, address, strlen(address)) == 0)
        netio__text(name, sizeof name, 0, (const char *)host.data, host.len);
    int err = netio_connect(&s, address, opts ? &opts->socket : NULL, timeout_ms);
    if (err < 0) return netio__tls_explain(why, NULL, err, "connect: ");
    netio_stream under = netio_stream_from_socket(s);
    err = netio_tls_wrap(out, &under, name, ctx, why, opts,
                         timeout_ms <= 0 ? timeout_ms : netio_deadline_left(by));
    if (err < 0) netio_stream_close(&under);
    return timeout_ms > 0 && err == NETIO_EAGAIN ? (int)NETIO_ETIMEDOUT : err;
}

NETIO_API netio_tls *netio_tls_stream_engine(const netio_stream *st)
{
    if (!st || st->ops != &netio__tls_stream_ops) return NULL;
    return ((const netio__tls_stream *)st->self)->t;
}
#endif // NETIO__TLS_HAS_STREAM

#if NETIO__TLS_HAS_LOOP
//================================================================================================
// >>tls-conn.c
//
// The engine is the filter. Received bytes stay in the loop's buffer and are used up before the
// call returns; what the library writes goes straight into the connection's queue.
//================================================================================================

static int netio__tls_filter_emit(void *arg, const void *data, size_t len)
{
    return netio_filter_emit((netio_filter_io *)arg, data, len);
}

static netio_tls *netio__tls_filter_engine(const netio_filter_io *io)
{
    return (netio_tls *)netio_filter_self(io);
}

// Nothing is left that a read could give, as far as can be seen from outside the library.
static bool netio__tls_dry(const netio_tls *t)
{
    return t->ctx->be->exact && t->in_len == 0 && !t->spill && t->record_left == 0 &&
           t->record_have == 0 && !t->end;
}

// Deliver all that the lent bytes hold.
static int netio__tls_filter_run(netio_filter_io *io, netio_tls *t)
{
    uint8_t plain[NETIO__TLS_SEND];
    ptrdiff_t n;
    if (!t->done) {
        int err = netio_tls_handshake(t);
        if (err == 0) err = netio_filter_ready(io);
        if (err < 0) return err == NETIO_EAGAIN ? 0 : err;
    }
    while ((n = netio_tls_read(t, plain, sizeof plain)) > 0) {
        int err = netio_filter_deliver(io, plain, (size_t)n);
        if (err < 0) return err;
        // Most often the record was the only one, and asking the library again would cost as much.
        if ((size_t)n < sizeof plain && netio__tls_dry(t)) return 0;
    }
    if (n == NETIO_EOF && !t->end_told) {
        t->end_told = true;
        return netio_filter_deliver_end(io);
    }
    return n == NETIO_EAGAIN || n == NETIO_EOF ? 0 : (int)n;
}

static int netio__tls_filter_start(netio_filter_io *io, netio_tls *t)
{
    t->emit = netio__tls_filter_emit;
    t->emit_arg = io;
    netio_filter_set_self(io, t);
    return netio__tls_filter_run(io, t);
}

static int netio__tls_filter_open(netio_filter_io *io, void *arg)
{
    netio_tls_ctx *ctx = (netio_tls_ctx *)arg;
    netio_tls *t = NULL;
    const char *name = netio_conn_server_name(netio_filter_conn(io));
    int err =
        netio_filter_dialed(io) ? netio_tls_client(&t, ctx, name, NULL) : netio_tls_server(&t, ctx);
    return err < 0 ? err : netio__tls_filter_start(io, t);
}

// --- one after the other ------------------------------------------------------------------------
//
// A handshake's step takes as long as fifty messages. So that a flood of them does not hold up
// those who are connected, one is made in a turn. The others stand in line, and only the first of
// them is called in every turn: a long line costs no more than a short one. One whose connection is
// closing is not called any more; the others pass by it. Loops of several threads may share a
// context, so all of this is under the lock.

typedef struct netio__tls_wait {
    struct netio__tls_wait *next, *before;
    netio__tls_pace *pace;
    netio_filter_io *io;
} netio__tls_wait;

// Of this loop, in this turn. NULL: too many others have a line.
static netio__tls_pace *netio__tls_pace_of(netio_tls_ctx *ctx, const netio_loop *loop,
                                           uint64_t turn)
{
    netio__tls_pace *found = NULL;
    int best = 0;
    for (size_t i = 0; i < NETIO__TLS_PACES; i++) {
        netio__tls_pace *p = &ctx->pace[i];
        int rank = p->loop == loop ? 3 : !p->loop ? 2 : !p->first ? 1 : 0;
        if (rank <= best) continue;
        best = rank;
        found = p;
    }
    if (!found) return NULL;
    if (found->loop != loop) found->stepped = turn;
    if (found->loop != loop || found->turn != turn) found->steps = 0;
    found->loop = loop;
    found->turn = turn;
    return found;
}

// To the end of the line. NULL: no memory to wait in.
static netio__tls_wait *netio__tls_wait_begin(netio__tls_pace *p, netio_filter_io *io)
{
    netio__tls_wait *w = (netio__tls_wait *)NETIO_MALLOC(sizeof *w);
    if (!w) return NULL;
    w->next = NULL;
    w->before = p->last;
    w->pace = p;
    w->io = io;
    if (p->last) p->last->next = w;
    else p->first = w;
    p->last = w;
    return w;
}

// Out of the line. Returns who is the first now, if it was not before; its timer is to be set.
static netio_filter_io *netio__tls_wait_end(netio__tls_wait *w)
{
    netio__tls_pace *p = w->pace;
    netio_filter_io *next = !w->before && w->next ? w->next->io : NULL;
    if (w->before) w->before->next = w->next;
    else p->first = w->next;
    if (w->next) w->next->before = w->before;
    else p->last = w->before;
    NETIO_FREE(w);
    return next;
}

// Whether it must wait. It then has a timer, that of the first for the next turn.
static bool netio__tls_filter_postpone(netio_filter_io *io, netio_tls *t)
{
    netio_loop *loop = netio_conn_loop(netio_filter_conn(io));
    netio_filter_io *next = NULL;
    netio_stats stats;
    netio_loop_stats(loop, &stats);
    netio__tls_lock();
    netio__tls_pace *p = netio__tls_pace_of(t->first, loop, stats.turns);
    bool ahead = p && p->first && p->first != t->waits && stats.turns - p->stepped <= 2;
    bool full = p && (ahead || p->steps >= NETIO__TLS_STEPS);
    if (full && !t->waits) t->waits = netio__tls_wait_begin(p, io);
    full = full && t->waits;
    bool first = full && p->first == t->waits;
    if (!full && t->waits) next = netio__tls_wait_end(t->waits);
    if (!full) t->waits = NULL;
    if (!full && p) {
        p->steps++;
        p->stepped = stats.turns;
    }
    netio__tls_unlock();
    if (next) netio_filter_timer(next, 0);
    if (full) netio_filter_timer(io, first ? 0 : NETIO__TLS_WAIT_MS);
    return full;
}

// One that ends while it waits.
static void netio__tls_filter_unwait(netio_tls *t)
{
    if (!t->waits) return;
    netio__tls_lock();
    netio_filter_io *next = netio__tls_wait_end(t->waits);
    netio__tls_unlock();
    t->waits = NULL;
    if (next) netio_filter_timer(next, 0);
}

static int netio__tls_filter_timer(netio_filter_io *io)
{
    netio_tls *t = netio__tls_filter_engine(io);
    if (!t->done && netio__tls_filter_postpone(io, t)) return 0;
    return netio__tls_filter_run(io, t);
}

static int netio__tls_filter_received(netio_filter_io *io, const void *data, size_t len)
{
    netio_tls *t = netio__tls_filter_engine(io);
    if (t->closed) return 0; // after close_notify nothing counts: RFC 8446 section 6.1
    if (!t->done && (t->waits || netio__tls_filter_postpone(io, t))) {
        int full = netio_tls_feed(t, data, len);
        if (full < 0) netio__tls_filter_unwait(t); // it closes: the next one's turn
        return full;
    }
    netio__tls_lend(t, data, len);
    int err = netio__tls_filter_run(io, t);
    netio__tls_lend(t, NULL, 0);
    return err;
}

static int netio__tls_filter_ended(netio_filter_io *io)
{
    netio_tls *t = netio__tls_filter_engine(io);
    netio_tls_feed_end(t);
    return t->closed || t->waits ? 0 : netio__tls_filter_run(io, t);
}

// A connection takes all that is emitted, so all is taken here.
static int netio__tls_filter_written(netio_filter_io *io, const netio_buf *bufs, size_t count)
{
    netio_tls *t = netio__tls_filter_engine(io);
    ptrdiff_t n = netio__tls_writev(t, bufs, count);
    return t->failed ? t->failed : n < 0 ? (int)n : 0;
}

static int netio__tls_filter_shutdown(netio_filter_io *io)
{
    return netio_tls_shutdown(netio__tls_filter_engine(io));
}

static void netio__tls_filter_explain(netio_filter_io *io, netio_error *out)
{
    netio_tls_error e;
    netio_tls *t = netio__tls_filter_engine(io);
    if (!t)
        netio__text_z(out->text, sizeof out->text, 0,
                      "TLS cannot begin: a server without a certificate, a client without a "
                      "server_name, or no memory");
    if (netio_tls_get_error(t, &e) < 0) return;
    out->lib_code = e.backend_code;
    memcpy(out->text, e.text, sizeof out->text);
}

static void netio__tls_filter_release(void *arg)
{
    netio_tls *t = (netio_tls *)arg;
    if (--t->refs == 0) netio__tls_free(t);
}

static void netio__tls_filter_close(netio_filter_io *io)
{
    netio_tls *t = netio__tls_filter_engine(io);
    if (!t) return;
    netio__tls_filter_unwait(t);
    netio__tls_filter_release(t);
}

static void netio__tls_filter_ref(void *arg) { netio_tls_ctx_ref((netio_tls_ctx *)arg); }

static void netio__tls_filter_unref(void *arg) { netio_tls_ctx_unref((netio_tls_ctx *)arg); }

// clang-format off
static const netio_filter_ops netio__tls_filter_ops = {
    "TLS", netio__tls_filter_ref, netio__tls_filter_unref, netio__tls_filter_open,
    netio__tls_filter_received, netio__tls_filter_ended, netio__tls_filter_written,
    netio__tls_filter_shutdown, netio__tls_filter_timer, netio__tls_filter_explain,
    netio__tls_filter_close, true};
// clang-format on

// The same with an engine that is there already, in place of a context to make one from.
static void netio__tls_filter_keep(void *arg) { ((netio_tls *)arg)->refs++; }

static int netio__tls_filter_adopt(netio_filter_io *io, void *arg)
{
    netio_tls *t = (netio_tls *)arg;
    t->refs++;
    return netio__tls_filter_start(io, t);
}

// clang-format off
static const netio_filter_ops netio__tls_engine_ops = {
    "TLS", netio__tls_filter_keep, netio__tls_filter_release, netio__tls_filter_adopt,
    netio__tls_filter_received, netio__tls_filter_ended, netio__tls_filter_written,
    netio__tls_filter_shutdown, netio__tls_filter_timer, netio__tls_filter_explain,
    netio__tls_filter_close, true};
// clang-format on

NETIO_API netio_filter netio_tls_filter(netio_tls_ctx *ctx)
{
    netio_filter f;
    f.ops = &netio__tls_filter_ops;
    f.arg = ctx;
    return f;
}

static int netio__tls_start(netio_conn c, netio_tls *t)
{
    netio_filter f;
    f.ops = &netio__tls_engine_ops;
    f.arg = t;
    int err = netio_conn_add_filter(c, f);
    netio__tls_filter_release(t); // the connection has its own reference
    return err;
}

NETIO_API int netio_tls_start_client(netio_conn c, netio_tls_ctx *ctx, const char *server_name,
                                     const netio_tls_client_opts *opts)
{
    netio_tls *t;
    int err = netio_tls_client(&t, ctx, server_name, opts);
    return err < 0 ? err : netio__tls_start(c, t);
}

NETIO_API int netio_tls_start_server(netio_conn c, netio_tls_ctx *ctx)
{
    netio_tls *t;
    int err = netio_tls_server(&t, ctx);
    return err < 0 ? err : netio__tls_start(c, t);
}

NETIO_API netio_tls *netio_tls_conn_engine(netio_conn c)
{
    void *t = netio_conn_filter(c, &netio__tls_filter_ops);
    return (netio_tls *)(t ? t : netio_conn_filter(c, &netio__tls_engine_ops));
}

NETIO_API int netio_tls_conn_info(netio_conn c, netio_tls_info *out)
{
    return netio_tls_get_info(netio_tls_conn_engine(c), out);
}

NETIO_API int netio_tls_conn_error(netio_conn c, netio_tls_error *out)
{
    return netio_tls_get_error(netio_tls_conn_engine(c), out);
}
#endif // NETIO__TLS_HAS_LOOP

#else // !NETIO__TLS_HAS_ANY
//================================================================================================
// >>tls-none.c                                                                     no TLS library
//
// So that a program can be built without TLS and say so when it runs.
//================================================================================================

NETIO_API const char *netio_tls_backend(int backend)
{
    return backend == NETIO_TLS_BACKEND_AUTO ? "none" : NULL;
}

NETIO_API int netio_tls_ctx_create(netio_tls_ctx **out, const netio_tls_config *cfg,
                                   netio_tls_error *why)
{
    (void)out, (void)cfg;
    if (!why) return NETIO_ENOTSUP;
    memset(why, 0, sizeof *why);
    why->code = NETIO_TLS_CONFIG;
    why->alert_in = why->alert_out = -1;
    netio__text_z(why->text, sizeof why->text, 0, "this program was built without a TLS library");
    return NETIO_ENOTSUP;
}

// There is no context, so none of the others can be called with one.
NETIO_API netio_tls_ctx *netio_tls_ctx_ref(netio_tls_ctx *ctx) { return ctx; }

NETIO_API void netio_tls_ctx_unref(netio_tls_ctx *ctx) { (void)ctx; }

NETIO_API int netio_tls_client(netio_tls **out, netio_tls_ctx *ctx, const char *server_name,
                               const netio_tls_client_opts *opts)
{
    (void)out, (void)ctx, (void)server_name, (void)opts;
    return NETIO_ENOTSUP;
}

NETIO_API int netio_tls_server(netio_tls **out, netio_tls_ctx *ctx)
{
    (void)out, (void)ctx;
    return NETIO_ENOTSUP;
}

NETIO_API void netio_tls_destroy(netio_tls *t) { (void)t; }

NETIO_API int netio_tls_feed(netio_tls *t, const void *data, size_t len)
{
    (void)t, (void)data, (void)len;
    return NETIO_ENOTSUP;
}

NETIO_API void netio_tls_feed_end(netio_tls *t) { (void)t; }

NETIO_API netio_buf netio_tls_out(const netio_tls *t)
{
    netio_buf none = {NULL, 0};
    (void)t;
    return none;
}

NETIO_API void netio_tls_out_drop(netio_tls *t, size_t len) { (void)t, (void)len; }

NETIO_API int netio_tls_handshake(netio_tls *t) { return (void)t, NETIO_ENOTSUP; }

NETIO_API ptrdiff_t netio_tls_read(netio_tls *t, void *buf, size_t cap)
{
    (void)t, (void)buf, (void)cap;
    return NETIO_ENOTSUP;
}

NETIO_API ptrdiff_t netio_tls_write(netio_tls *t, const void *data, size_t len)
{
    (void)t, (void)data, (void)len;
    return NETIO_ENOTSUP;
}

NETIO_API int netio_tls_shutdown(netio_tls *t) { return (void)t, NETIO_ENOTSUP; }

NETIO_API int netio_tls_get_info(netio_tls *t, netio_tls_info *out)
{
    (void)t, (void)out;
    return NETIO_ENOTSUP;
}

NETIO_API int netio_tls_get_error(const netio_tls *t, netio_tls_error *out)
{
    (void)t, (void)out;
    return NETIO_ENOTSUP;
}

NETIO_API int netio_tls_export(netio_tls *t, const char *label, const void *context,
                               size_t context_len, void *out, size_t len)
{
    (void)t, (void)label, (void)context, (void)context_len, (void)out, (void)len;
    return NETIO_ENOTSUP;
}

#if NETIO__TLS_HAS_STREAM
NETIO_API int netio_tls_connect(netio_stream *out, const char *address, netio_tls_ctx *ctx,
                                netio_tls_error *why, const netio_tls_client_opts *opts,
                                int timeout_ms)
{
    (void)out, (void)address, (void)ctx, (void)opts, (void)timeout_ms;
    return netio_tls_ctx_create(NULL, NULL, why);
}

NETIO_API int netio_tls_wrap(netio_stream *out, netio_stream *under, const char *server_name,
                             netio_tls_ctx *ctx, netio_tls_error *why,
                             const netio_tls_client_opts *opts, int timeout_ms)
{
    (void)out, (void)under, (void)server_name, (void)ctx, (void)opts, (void)timeout_ms;
    return netio_tls_ctx_create(NULL, NULL, why);
}

NETIO_API netio_tls *netio_tls_stream_engine(const netio_stream *st)
{
    return (void)st, (netio_tls *)NULL;
}
#endif

#if NETIO__TLS_HAS_LOOP
static int netio__tls_none_open(netio_filter_io *io, void *arg)
{
    (void)io, (void)arg;
    return NETIO_ENOTSUP;
}

static const netio_filter_ops netio__tls_none_ops = {
    "TLS", NULL, NULL, netio__tls_none_open, NULL, NULL, NULL, NULL, NULL, NULL, NULL, true};

NETIO_API netio_filter netio_tls_filter(netio_tls_ctx *ctx)
{
    netio_filter f;
    f.ops = &netio__tls_none_ops; // never plain text where TLS was meant
    f.arg = ctx;
    return f;
}

NETIO_API int netio_tls_start_client(netio_conn c, netio_tls_ctx *ctx, const char *server_name,
                                     const netio_tls_client_opts *opts)
{
    (void)c, (void)ctx, (void)server_name, (void)opts;
    return NETIO_ENOTSUP;
}

NETIO_API int netio_tls_start_server(netio_conn c, netio_tls_ctx *ctx)
{
    (void)c, (void)ctx;
    return NETIO_ENOTSUP;
}

NETIO_API netio_tls *netio_tls_conn_engine(netio_conn c) { return (void)c, (netio_tls *)NULL; }

NETIO_API int netio_tls_conn_info(netio_conn c, netio_tls_info *out)
{
    (void)c, (void)out;
    return NETIO_ENOENT;
}

NETIO_API int netio_tls_conn_error(netio_conn c, netio_tls_error *out)
{
    (void)c, (void)out;
    return NETIO_ENOENT;
}
#endif
#endif // NETIO__TLS_HAS_ANY

#ifdef __cplusplus
}
#endif
#ifdef _MSC_VER
#pragma warning(pop)
#endif
#endif // NETIO__TLS_STOP
#endif // NETIO_IMPLEMENTATION

// Choose one: MIT licence, or public domain (unlicense.org). Both stand in the file LICENSE.
