/*
netio.h: portable sockets, options and pollers. C99 and C++11, one file, no dependency but the OS.

    // echo.c: cc echo.c -o echo          (Windows: gcc echo.c -lws2_32, or cl echo.c)
    #define NETIO_IMPLEMENTATION          // in exactly one file of the program
    #include "netio.h"

    int main(void)
    {
        netio_socket listener, s;
        if (netio_listen(&listener, ":7777", NULL) < 0) return 1;
        while (netio_accept(&s, listener, NULL, -1) == 0) {
            char buf[4096];
            ptrdiff_t n;
            while ((n = netio_recv(s, buf, sizeof buf, 10000)) > 0)
                if (netio_send_all(s, buf, (size_t)n, NULL, 10000) < 0) break;
            netio_close(&s);
        }
        return 1;
    }

BUILD  Linux, macOS, BSD: nothing to add (before glibc 2.34: -pthread). Windows: link ws2_32; MSVC
does it by itself. The implementation asks for the platform's full interface by itself, so it also
builds with -std=c99; under such a strict mode include it before any system header.

CONTENTS  search for >>name to reach the declarations, >>name.c to reach the code

    >>config   types, switches             >>socket   TCP, UDP, Unix: open, send, receive
    >>error    one error space             >>option   the option table
    >>time     clock and deadlines         >>poller   readiness of many sockets
    >>addr     addresses as values
    >>resolve  names to addresses          Code only: >>platform >>os-posix >>os-windows
                                           >>select >>poll >>epoll >>kqueue >>winselect >>wsapoll

NAMES  A bare verb acts on a socket (netio_send, netio_close). Everything else names its object
(netio_addr_parse, netio_poller_wait). Three habits make most signatures guessable:
  - what is being made comes first, as a pointer;
  - then inputs, outputs, options (NULL: all defaults), and timeout_ms last;
  - a buffer and its length stand side by side.

ERRORS  Calls return int or ptrdiff_t: negative is a NETIO_E*, named after the errno you know. Test
`< 0`. Outputs are written on success only, but for `done` counts. Nothing prints, aborts, or needs
errno; netio_os_error() has the OS's own number.

WAITING  timeout_ms is 0: don't wait (NETIO_EAGAIN if it would), -1 or any negative number: no limit,
else milliseconds on the monotonic clock (NETIO_ETIMEDOUT when they are over; the socket stays
usable). Signals and partial progress never extend it. For one deadline over several calls see
netio_deadline. Only timeout_ms decides: the OS's blocking mode of a socket does not matter to sends
and receives.

THREADS  Different sockets: any threads. One socket: one thread may receive while one sends; two
senders, or two receivers, need a lock of yours. A poller: one thread, but for netio_poller_wake.

OWNERSHIP  borrows: during the call. copies: before returning. takes: netio's if the call succeeds,
else still yours. lends: until the next call. gives: yours; the comment says what frees it.

OPTIONS STRUCTS  `= {0}` in C, `= {}` in C++ is the usual, safe choice in every field; what 0 means
is written beside it.

SIGNALS, PROCESSES  No signal handler is touched and no SIGPIPE reaches the program. EINTR is
retried within the deadline. Every descriptor is close-on-exec from birth, atomically where the OS
can (not on macOS). There is no init call: Winsock is started by the first call that needs it. netio
reads no environment variable.

SWITCHES  define before including, the same in every file
    NETIO_STATIC            with NETIO_IMPLEMENTATION: a private copy, every function static
    NETIO_API               replaces `extern`, for example a dllexport
    NETIO_NO_UNIX           no Unix-domain sockets; netio_pair then uses loopback TCP and UDP
    NETIO_NO_THREADS        no resolver thread: a lookup with a bounded time is NETIO_ENOTSUP
    NETIO_NO_POLLER         leave the poller out
    NETIO_NO_SELECT _POLL _WSAPOLL _EPOLL _KQUEUE     leave one backend out
  define in the file that implements
    NETIO_MALLOC(size) NETIO_REALLOC(ptr, size) NETIO_FREE(ptr)       default: stdlib; all or none,
                            thread-safe. Used by pollers and by lookups with a bounded time, only.
    NETIO_ASSERT(expr)      our broken invariants; default: nothing
    NETIO_ON_OP(op, socket, result)    runs after every operation on a socket: op is a NETIO_OP_*,
                            result its bytes or error. Must not call netio on the same socket.
    NETIO_GETADDRINFO, NETIO_FREEADDRINFO    replace the system's resolver, for tests; both or none
*/
#ifndef NETIO_H
#define NETIO_H

#if defined(NETIO_IMPLEMENTATION) && !defined(_WIN32)
// The C library fixes what it shows at the first system header, so this comes before any of them.
#if defined(_FEATURES_H) && !defined(_GNU_SOURCE)
#define NETIO__LATE 1 // >>platform.c says what that costs, and stops where it costs too much
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE // Linux: accept4, pipe2, struct mmsghdr
#endif
#ifndef _DARWIN_C_SOURCE
#define _DARWIN_C_SOURCE // macOS: everything, even if _POSIX_C_SOURCE is set
#endif
#ifndef _DARWIN_UNLIMITED_SELECT
#define _DARWIN_UNLIMITED_SELECT // macOS: select() beyond 1,024
#endif
#ifndef __APPLE_USE_RFC_3542
#define __APPLE_USE_RFC_3542 // macOS: IPV6_PKTINFO
#endif
#ifndef _NETBSD_SOURCE
#define _NETBSD_SOURCE // NetBSD: everything, even with -std=c99
#endif
#ifndef __BSD_VISIBLE
#define __BSD_VISIBLE 1 // FreeBSD, OpenBSD: likewise
#endif
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NETIO_VERSION_MAJOR 0
#define NETIO_VERSION_MINOR 1
#define NETIO_VERSION_PATCH 0
#define NETIO_VERSION "0.1.0"

#ifndef NETIO_API
#if !defined(NETIO_STATIC)
#define NETIO_API extern
#elif defined(__GNUC__)
#define NETIO_API __attribute__((unused)) static
#else
#define NETIO_API static
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

//================================================================================================
// >>config                                                            types that every section uses
//
// A netio_socket is the OS's own handle: hand it to any OS call, adopt one made elsewhere.
//================================================================================================

#if defined(_WIN32)
typedef uintptr_t netio_socket; // SOCKET
typedef intptr_t netio_file;    // HANDLE, as _get_osfhandle() returns it
#define NETIO_INVALID_SOCKET UINTPTR_MAX
#else
typedef int netio_socket;
typedef int netio_file;
#define NETIO_INVALID_SOCKET (-1)
#endif

// Bytes to read from, and (netio_room) bytes to write into: the pieces of vectored calls.
typedef struct netio_buf {
    const void *data;
    size_t len;
} netio_buf;

typedef struct netio_room {
    void *data;
    size_t cap;
} netio_room;

// An address: a plain value in the form the OS takes it. All zero is "no address". See >>addr.
typedef struct netio_addr {
    uint64_t raw[16]; // sockaddr_in, _in6, _un or any other
    uint32_t len;     // bytes of raw in use
    uint32_t dual;    // 1: made from ":port", both IPv6 and IPv4
} netio_addr;

// What NETIO_ON_OP reports.
// clang-format off
enum { NETIO_OP_OPEN = 1, NETIO_OP_BIND, NETIO_OP_CONNECT, NETIO_OP_ACCEPT, NETIO_OP_SEND,
       NETIO_OP_RECV, NETIO_OP_SHUTDOWN, NETIO_OP_CLOSE };
// clang-format on

//================================================================================================
// >>error                                                              one error space for every OS
//
// Names are the errno's that people know, values are netio's own and the same everywhere.
// Without an errno: NETIO_EOF, NETIO_ETRUNCATED, NETIO_ETLS, and the NETIO_EAI_* pair of lookups.
//================================================================================================

typedef enum netio_err {
    NETIO_OK = 0,
    // Not failures of anything, but the call has no result to give.
    NETIO_EAGAIN = -1,      // nothing now; wait for readiness and try again
    NETIO_EOF = -2,         // the peer ended its stream, cleanly
    NETIO_ETIMEDOUT = -3,   // the deadline passed, or TCP gave the peer up
    NETIO_ECANCELED = -4,   // cancelled by this program
    NETIO_EINPROGRESS = -5, // a connect has started: wait for writable, then finish
    // Misuse.
    NETIO_EINVAL = -10,       // an argument makes no sense
    NETIO_ESTALE = -11,       // the handle's object has closed
    NETIO_EBADF = -12,        // not an open descriptor
    NETIO_ENOTSOCK = -13,     // a descriptor, but no socket
    NETIO_ENOTSUP = -14,      // this OS, kernel, backend or build cannot do it
    NETIO_EEXIST = -15,       // registered or joined already
    NETIO_ENOENT = -16,       // no such file, name, registration or member
    NETIO_ENOTCONN = -17,     // not connected
    NETIO_EISCONN = -18,      // connected already
    NETIO_EPIPE = -19,        // written after shutdown, or the peer takes no more
    NETIO_ENAMETOOLONG = -20, // path longer than a socket address holds
    // Limits.
    NETIO_ENOMEM = -30,   // no memory; objects are as they were
    NETIO_ENOBUFS = -31,  // a queue of netio's or the OS's is full; nothing was taken
    NETIO_EMFILE = -32,   // no descriptors left in this process (ENFILE: in the system)
    NETIO_EMSGSIZE = -33, // frame or datagram larger than allowed
    NETIO_ENOSPC = -34,   // the buffer passed in is too small
    NETIO_EBUSY = -35,    // limit of connections, lookups, requests reached
    // Permission and addresses.
    NETIO_EACCES = -40,
    NETIO_EADDRINUSE = -41,
    NETIO_EADDRNOTAVAIL = -42,
    NETIO_EAFNOSUPPORT = -43,
    NETIO_EAI_NONAME = -44, // the name does not exist, or has no address
    NETIO_EAI_AGAIN = -45,  // name servers do not answer now
    // The network.
    NETIO_ECONNREFUSED = -50,
    NETIO_ECONNRESET = -51,
    NETIO_ECONNABORTED = -52, // ended from this side, by abort or by the OS
    NETIO_EHOSTUNREACH = -53,
    NETIO_ENETUNREACH = -54,
    NETIO_ENETDOWN = -55,
    NETIO_ENODEV = -56, // no such network interface
    // Content.
    NETIO_EPROTO = -60,     // malformed: the format's rules are broken
    NETIO_EBADMSG = -61,    // checksum does not match
    NETIO_EILSEQ = -62,     // not UTF-8
    NETIO_ETRUNCATED = -63, // the end came in the middle of something
    NETIO_ETLS = -64,       // TLS failed: netio_error has code and text
    NETIO_EIO = -70         // anything else: netio_os_error() has the OS's number
} netio_err;

// Where a connection stood when it failed.
// clang-format off
enum { NETIO_STAGE_NONE, NETIO_STAGE_RESOLVE, NETIO_STAGE_CONNECT, NETIO_STAGE_PROXY /*header*/,
       NETIO_STAGE_HANDSHAKE /*TLS*/, NETIO_STAGE_READ, NETIO_STAGE_FRAME, NETIO_STAGE_WRITE,
       NETIO_STAGE_CLOSE };
// clang-format on

// The whole story of one failure. A racing connect keeps one per attempt.
typedef struct netio_error {
    int err;          // NETIO_E*
    int stage;        // NETIO_STAGE_*
    int timeout;      // which of several time limits ran out; 0: none, or there is only one
    int os_code;      // errno or WSA code; 0: none
    int64_t lib_code; // the TLS library's own code; 0: none
    netio_addr addr;  // the address tried, or the peer's; zero: none
    uint64_t offset;  // framing: byte of the stream where the bad frame begins
    uint64_t size;    // limits: the size that was asked for
    char text[160];   // one line for a log, always terminated, cut if it does not fit
} netio_error;

// Words and name of an error, from an int or a ptrdiff_t: "connection refused", "ECONNREFUSED".
// Return a static string, never NULL; what is no error of netio's is "unknown error", "EUNKNOWN".
NETIO_API const char *netio_strerror(ptrdiff_t err);
NETIO_API const char *netio_errname(ptrdiff_t err);

// The OS's own code behind the last failure on this thread (errno, WSAGetLastError), kept intact by
// netio's clean-up on the way out. Read it at once: any later call may change it.
NETIO_API int netio_os_error(void);

// The netio error of an OS code, for OS calls of your own. 0 is 0; unknown codes are NETIO_EIO.
NETIO_API int netio_error_from_os(int os_code);

//================================================================================================
// >>time                                                                monotonic clock, deadlines
//
// Never the wall clock: jumps of it move nothing here. 64 bits outlast the machine.
//================================================================================================

NETIO_API uint64_t netio_now_ms(void);
NETIO_API uint64_t netio_now_us(void);

// One deadline over several calls:
//     int64_t by = netio_deadline(5000);
//     err = netio_send_all(s, req, n, NULL, netio_deadline_left(by));
// netio_deadline(-1) never comes. left() is the timeout_ms still to go, rounded up: 0 past it, -1
// for never.
NETIO_API int64_t netio_deadline(int timeout_ms);
NETIO_API int netio_deadline_left(int64_t deadline);

//================================================================================================
// >>addr                                                     addresses: IPv4, IPv6+zone, Unix path
//
// One text form everywhere: "192.0.2.1:80", "[2001:db8::1]:443", "[fe80::1%eth0]:9", ":8080" and
// "*:8080" (any interface, dual-stack), "unix:/run/app.sock", "unix:@abstract". Parsing is strict,
// formatting is RFC 5952 and gives back what was parsed, in canonical form (":8080" as "[::]:8080").
// No heap, no names; any thread.
//================================================================================================

#define NETIO_ADDR_TEXT 128 // room for any formatted address and its NUL

enum { NETIO_IPV4 = 4, NETIO_IPV6 = 6, NETIO_UNIX = 1 };

// What netio_addr_class says: flags, several may hold.
enum {
    NETIO_ADDR_ANY = 1,        // 0.0.0.0, ::
    NETIO_ADDR_LOOPBACK = 2,   // 127/8, ::1
    NETIO_ADDR_PRIVATE = 4,    // RFC 1918, fc00::/7
    NETIO_ADDR_LINK_LOCAL = 8, // 169.254/16, fe80::/10
    NETIO_ADDR_MULTICAST = 16, // 224/4, ff00::/8
    NETIO_ADDR_BROADCAST = 32, // 255.255.255.255
    NETIO_ADDR_MAPPED = 64     // ::ffff:a.b.c.d; other flags describe a.b.c.d
};

// Parse `text` (`len` bytes, no NUL needed) into `*out`; names are not resolved: see netio_resolve.
// A zone ("%eth0", "%2") is taken with link-local and link-scope multicast addresses only.
//
// Returns  0; NETIO_EINVAL (leading zeros, trailing bytes, no port, port over 65535, NUL inside),
//          NETIO_ENAMETOOLONG (path does not fit sun_path), NETIO_ENODEV (no interface of the
//          zone's name), NETIO_ENOTSUP ("unix:" with NETIO_NO_UNIX; "unix:@" but on Linux).
//          On error `*out` is untouched.
// See      RFC 4291 section 2.2, RFC 4007 section 11 (zones), unix(7)
NETIO_API int netio_addr_parse(netio_addr *out, const char *text, size_t len);

// Write the text form and a NUL; format_host leaves out the port and the brackets. A NUL inside an
// abstract name is written as '@'; families other than IP and Unix as "family:16", with the number.
// Returns  the length without NUL; NETIO_ENOSPC if `cap` is too small (what fits is terminated);
//          NETIO_EINVAL (no address).
// See      RFC 5952
NETIO_API int netio_addr_format(const netio_addr *a, char *buf, size_t cap);
NETIO_API int netio_addr_format_host(const netio_addr *a, char *buf, size_t cap);

// Cut "host:port" or "[v6]:port" in two without judging either; the pieces point into `text`.
// Returns 0; NETIO_EINVAL: no port, an open bracket, or a bare IPv6 address ("::1:80").
NETIO_API int netio_addr_split(netio_buf *host, netio_buf *port, const char *text, size_t len);

// Make an address: any interface, this machine, from 4 or 16 bytes in network order, or a path
// ("@name": abstract). Family: NETIO_IPV4, NETIO_IPV6; for any also 0: both, as ":port".
// Returns 0; NETIO_EINVAL (family, length, NUL in a path), NETIO_ENAMETOOLONG, NETIO_ENOTSUP.
NETIO_API int netio_addr_any(netio_addr *out, int family, uint16_t port);
NETIO_API int netio_addr_loopback(netio_addr *out, int family, uint16_t port);
NETIO_API int netio_addr_from_ip(netio_addr *out, const void *ip, size_t len, uint16_t port);
NETIO_API int netio_addr_from_path(netio_addr *out, const char *path, size_t len);

// To and from the OS's form, whatever the family. netio_addr_sockaddr points into `*a`.
// Returns 0; NETIO_EINVAL: too short for its family, or longer than netio_addr holds (128 bytes).
NETIO_API int netio_addr_from_sockaddr(netio_addr *out, const void *sockaddr, size_t len);
NETIO_API const void *netio_addr_sockaddr(const netio_addr *a, size_t *len);

// NETIO_IPV4, NETIO_IPV6, NETIO_UNIX; 0: none; other families as minus the OS's number.
NETIO_API int netio_addr_family(const netio_addr *a);
NETIO_API uint16_t netio_addr_port(const netio_addr *a); // 0 for Unix
NETIO_API void netio_addr_set_port(netio_addr *a, uint16_t port);
NETIO_API netio_buf netio_addr_ip(const netio_addr *a);   // 4 or 16 bytes inside *a; len 0: not IP
NETIO_API uint32_t netio_addr_scope(const netio_addr *a); // interface number of fe80::, else 0

NETIO_API unsigned netio_addr_class(const netio_addr *a); // NETIO_ADDR_* flags; 0 if not IP
NETIO_API void netio_addr_unmap(netio_addr *a);           // ::ffff:1.2.3.4 becomes 1.2.3.4

// A mapped address equals its IPv4 one. equal_host leaves ports aside (Unix: compares paths).
NETIO_API bool netio_addr_equal(const netio_addr *a, const netio_addr *b);
NETIO_API bool netio_addr_equal_host(const netio_addr *a, const netio_addr *b);
NETIO_API uint64_t netio_addr_hash(const netio_addr *a); // equal addresses, equal hashes

// A network, for allow and deny lists: "10.0.0.0/8", "2001:db8::/32", or one address.
typedef struct netio_cidr {
    uint8_t ip[16];
    uint8_t ip_len; // 4 or 16
    uint8_t bits;
} netio_cidr;

// Returns 0; NETIO_EINVAL (prefix too long, bits set behind it). A mapped address matches its IPv4.
NETIO_API int netio_cidr_parse(netio_cidr *out, const char *text, size_t len);
NETIO_API bool netio_cidr_contains(const netio_cidr *net, const netio_addr *a);

// 0: well-known (below 1024), 1: registered (below 49152), 2: dynamic. RFC 6335 section 6.
NETIO_API int netio_port_class(uint16_t port);

//================================================================================================
// >>resolve                                                                     names to addresses
//
// Literals never reach the system's resolver, so they work with the network down. With a bounded
// time the lookup runs on a thread of its own, so that the call returns on time even if the resolver
// does not: the thread stays behind, touches only memory of its own and frees it. At most 64 such
// threads exist in a process; beyond: NETIO_EBUSY.
//================================================================================================

// Replaces the system's resolver. Fill up to `cap` addresses; return their number or an error. With
// a bounded time it runs on a thread of its own and may outlive the call that asked.
typedef ptrdiff_t (*netio_resolver)(void *user, const char *host, uint16_t port, netio_addr *out,
                                    size_t cap);

typedef struct netio_resolve_opts {
    int family;              // NETIO_IPV4 or NETIO_IPV6 only; 0: both, in the order to try them
    netio_resolver resolver; // instead of the system's; NULL: the system's
    void *resolver_user;
} netio_resolve_opts;

#define NETIO_RESOLVE_MAX 32 // addresses of one name that are looked at

// All addresses of "host:port" (port by number or service name, "*" or "" for any interface), or of
// any other address text: at most NETIO_RESOLVE_MAX, without repetitions, families alternating as
// RFC 8305 section 4 says. timeout_ms -1: on this thread, as long as the OS takes.
//
// Returns  how many were written (at most `cap`); NETIO_EAI_NONAME, NETIO_EAI_AGAIN,
//          NETIO_ETIMEDOUT, NETIO_EINVAL (no host and port, or a host like "1.2.3" that is neither
//          a literal nor a name), NETIO_ENOENT (no such service), NETIO_EAGAIN (timeout_ms 0 and not
//          a literal), NETIO_EBUSY, NETIO_ENOMEM; NETIO_ENOTSUP (bounded, NETIO_NO_THREADS).
// Thread   any.
NETIO_API ptrdiff_t netio_resolve(const char *host_port, netio_addr *out, size_t cap,
                                  const netio_resolve_opts *opts, int timeout_ms);

// The name of an address. Returns its length; NETIO_EAI_NONAME if it has none; NETIO_ENOSPC;
// NETIO_EINVAL (not IP); as netio_resolve.
NETIO_API int netio_resolve_reverse(const netio_addr *a, char *buf, size_t cap, int timeout_ms);

// Port of a service name ("http") over "tcp" or "udp". Returns it; NETIO_ENOENT, NETIO_EINVAL.
NETIO_API int netio_service_port(const char *name, const char *protocol);

//================================================================================================
// >>socket                                              TCP, UDP, Unix: blocking or by hand
//
// The same calls both ways: timeout_ms says how long each may wait. What is made here is in the
// OS's non-blocking mode for life, is not inherited by child processes, never raises SIGPIPE.
// IPv4-mapped addresses are unmapped in every address handed out, and mapped again where needed.
// No heap, but for names looked up with a bounded time.
//================================================================================================

enum { NETIO_STREAM = 1, NETIO_DGRAM = 2, NETIO_SEQPACKET = 3 };
enum { NETIO_SHUT_READ = 1, NETIO_SHUT_WRITE = 2, NETIO_SHUT_BOTH = 3 };

// What to wait for, and what came.
enum {
    NETIO_EV_READ = 1,       // receive or accept will not wait
    NETIO_EV_WRITE = 2,      // send will not wait; a connect has ended
    NETIO_EV_HINT_EOF = 4,   // the OS says: the peer sends no more (there may be data still)
    NETIO_EV_HINT_ERROR = 8, // the OS says: it failed. Hints may be absent; do not rely on them
    NETIO_EV_EDGE = 32,      // poller interest: report changes only; NETIO_ENOTSUP if not native
    NETIO_EV_ONESHOT = 64    // poller interest: report once, then modify to hear again
};

// An option to set before bind, listen or connect. See >>option.
typedef struct netio_setting {
    int option;       // NETIO_OPT_*
    int value;        // for the options that are numbers
    const char *text; // for the options that are text
} netio_setting;

// How to make a socket.
typedef struct netio_socket_opts {
    int type;                    // NETIO_STREAM...; 0: stream for listen and connect, else datagram
    int family;                  // NETIO_IPV4, NETIO_IPV6 only; 0: both
    int backlog;                 // listen: clients the kernel may queue; 0: 1024. The OS has a cap
    int unix_mode;               // permissions of the socket file; 0: as the umask says
    bool balance;                // listen, bind: one port for several sockets, the kernel balances;
                                 // NETIO_ENOTSUP where it does not (but Linux, FreeBSD)
    bool exclusive;              // Windows: nobody else may bind it, and a restart may have to wait
                                 // for old connections; nothing elsewhere, where that is the rule
    bool share_group;            // bind: several receivers of one multicast group on this machine
    bool v6_only;                // listen, bind: no IPv4 through an IPv6 socket
    bool inheritable;            // child processes keep it
    const char *local;           // connect: "addr:port" to come from; NULL: the OS chooses
    const char *const *fallback; // connect: more "host:port" to try; NULL: none
    size_t fallback_count;
    int stagger_ms;              // connect: head start of each address (RFC 8305); 0: 250
    netio_resolve_opts resolve;
    const netio_setting *settings; // further options, in order; NULL: none
    size_t setting_count;
    netio_error *errors;           // connect: on failure [0] the verdict, then one per attempt
    size_t error_cap;              // of `errors`; those not needed are zeroed
} netio_socket_opts;

// Listen on a stream (or NETIO_SEQPACKET) address. A name is not resolved. ":port" is dual-stack;
// where IPv6 is off it is 0.0.0.0. A restart at once succeeds on every OS, and nobody else gets the
// port meanwhile. A socket file on which nobody answers is replaced, a live one is
// NETIO_EADDRINUSE; netio_unix_unlink removes it at the end.
//
// Returns  0; NETIO_EADDRINUSE, NETIO_EADDRNOTAVAIL, NETIO_EACCES (port below 1024, directory),
//          NETIO_EINVAL (text, backlog below 0, a file that is no socket), NETIO_EAFNOSUPPORT
//          (text and opts->family differ), NETIO_EMFILE; NETIO_ENOTSUP (no dual-stack: OpenBSD)
NETIO_API int netio_listen(netio_socket *out, const char *address, const netio_socket_opts *opts);

// A datagram socket on `address`; ":0" takes any port, NULL leaves it unbound until it sends.
// An ICMP error of an earlier datagram never shows on it.
// Returns as netio_listen.
NETIO_API int netio_bind(netio_socket *out, const char *address, const netio_socket_opts *opts);

// Connect to "host:port" or any address text: resolve, race the addresses, one deadline for all.
// At most NETIO_RESOLVE_MAX addresses are tried, those of `fallback` included. An any-address means
// this machine. With opts->type NETIO_DGRAM: a datagram socket that talks to this peer alone.
//
// Returns  0; NETIO_ETIMEDOUT (also if some timed out and the others failed), else the most
//          telling error of the attempts (see opts->errors); as netio_resolve.
// See      RFC 8305 sections 4 and 5
NETIO_API int netio_connect(netio_socket *out, const char *address, const netio_socket_opts *opts,
                            int timeout_ms);

// The same by hand for one address: start, wait until writable, finish. opts->local, type, settings
// and inheritable count.
// Returns 0 when connected; start: NETIO_EINPROGRESS, NETIO_EAGAIN (Unix: the peer's backlog is
// full, there is no socket; try again later); finish: NETIO_EAGAIN, NETIO_ETIMEDOUT,
// NETIO_ECONNREFUSED... The socket stays yours to close.
NETIO_API int netio_connect_start(netio_socket *out, const netio_addr *a,
                                  const netio_socket_opts *opts);
NETIO_API int netio_connect_finish(netio_socket s, int timeout_ms);

// Next client of a listening socket; `peer` may be NULL. Clients that left meanwhile are skipped.
// Returns 0; NETIO_EAGAIN, NETIO_ETIMEDOUT; NETIO_EMFILE, NETIO_ENOMEM, NETIO_ENOBUFS (pause, then
// try again: the client still waits, so an accept loop without a pause would spin); NETIO_EINVAL
// (not listening).
NETIO_API int netio_accept(netio_socket *out, netio_socket listener, netio_addr *peer,
                           int timeout_ms);

// Two connected sockets of a type, for threads and child processes: Unix sockets; on Windows
// loopback TCP or UDP, checked to be our own. Closing one end of a datagram pair is not signalled
// to the other. Returns 0; NETIO_ENOTSUP (seqpacket on macOS and Windows), NETIO_EINVAL.
NETIO_API int netio_pair(netio_socket out[2], int type);

// Take a socket made elsewhere: from now on it is in the OS's non-blocking mode, which its
// duplicates share. release puts back what adopt found (Windows: it stays non-blocking).
// Returns 0; NETIO_EBADF, NETIO_ENOTSOCK.
NETIO_API int netio_adopt(netio_socket s, unsigned *found);
NETIO_API int netio_release(netio_socket s, unsigned found);

// Any family, type and protocol by the OS's numbers (AF_NETLINK, IPPROTO_ICMP, ...); use
// netio_addr_from_sockaddr with it. bind, listen and connect such a socket with the OS's calls.
// Returns 0; NETIO_EAFNOSUPPORT, NETIO_ENOTSUP (type, protocol), NETIO_EACCES.
NETIO_API int netio_open(netio_socket *out, int os_family, int os_type, int os_protocol);

// Close at once; what the OS already took is still sent, but received bytes that were not read
// make TCP reset the peer: see netio_close_gracefully. `*s` becomes NETIO_INVALID_SOCKET; closing
// that is NETIO_EBADF. Returns 0.
NETIO_API int netio_close(netio_socket *s);

// Shut down, discard what the peer still sends until its end (at most `max` bytes), close: nothing
// that was sent gets lost. Returns 0; NETIO_ETIMEDOUT, NETIO_EMSGSIZE. The socket is closed anyway.
NETIO_API int netio_close_gracefully(netio_socket *s, size_t max, int timeout_ms);

NETIO_API int netio_abort(netio_socket *s);            // close with RST; datagram: NETIO_ENOTSUP
NETIO_API int netio_shutdown(netio_socket s, int how); // NETIO_SHUT_*; again: 0; NETIO_ENOTCONN
NETIO_API int netio_local_addr(netio_socket s, netio_addr *out);
NETIO_API int netio_peer_addr(netio_socket s, netio_addr *out); // NETIO_ENOTCONN
NETIO_API int netio_set_inheritable(netio_socket s, bool on);   // by child processes

// Wait until one socket is ready: `events` of NETIO_EV_READ, NETIO_EV_WRITE. An error or the end of
// the stream makes it ready for whichever was asked: call and find out.
// Returns what came, as NETIO_EV_* bits; NETIO_EAGAIN (timeout_ms 0), NETIO_ETIMEDOUT; NETIO_EINVAL
// (no events), NETIO_EBADF.
NETIO_API int netio_wait(netio_socket s, unsigned events, int timeout_ms);

// Receive what is there, up to `cap`; send what fits. netio_peek leaves it in place. A datagram
// that does not fit `cap` is cut: see netio_recvfrom.
// Returns bytes (recv: 0 only for an empty datagram or cap 0); NETIO_EOF, NETIO_EAGAIN,
// NETIO_ETIMEDOUT, NETIO_ECONNRESET, NETIO_EPIPE, NETIO_ENOTCONN; NETIO_EINVAL (NULL with a length,
// an empty record on NETIO_SEQPACKET); a connected datagram socket also NETIO_ECONNREFUSED.
NETIO_API ptrdiff_t netio_recv(netio_socket s, void *buf, size_t cap, int timeout_ms);
NETIO_API ptrdiff_t netio_peek(netio_socket s, void *buf, size_t cap, int timeout_ms);
NETIO_API ptrdiff_t netio_send(netio_socket s, const void *data, size_t len, int timeout_ms);

// The same over pieces: any number on streams, 64 a system call; a datagram or record goes in one
// call or not at all (more than 64 pieces: NETIO_EMSGSIZE, nothing sent).
NETIO_API ptrdiff_t netio_recvv(netio_socket s, const netio_room *rooms, size_t count,
                                int timeout_ms);
NETIO_API ptrdiff_t netio_sendv(netio_socket s, const netio_buf *bufs, size_t count,
                                int timeout_ms);

// All of it by the deadline, or fail; `*done` (may be NULL) says how far it got, also on error.
// With timeout_ms 0: NETIO_EAGAIN where it would wait.
// Returns 0; recv_exact: NETIO_EOF before the first byte, NETIO_ETRUNCATED after it; as above.
NETIO_API int netio_recv_exact(netio_socket s, void *buf, size_t len, size_t *done, int timeout_ms);
NETIO_API int netio_send_all(netio_socket s, const void *data, size_t len, size_t *done,
                             int timeout_ms);
NETIO_API int netio_sendv_all(netio_socket s, const netio_buf *bufs, size_t count, size_t *done,
                              int timeout_ms);

// Send `len` bytes of a file from `off`, through the kernel where it can (Linux, macOS, FreeBSD),
// else by a copy of 16 KiB at a time; all or fail, as above. The file's own position does not move;
// a file without positions (a pipe) is read from where it stands, with `off` 0.
// Returns 0; NETIO_ETRUNCATED if the file is shorter; NETIO_EIO and others from reading it.
NETIO_API int netio_sendfile(netio_socket s, netio_file file, uint64_t off, uint64_t len,
                             uint64_t *done, int timeout_ms);

// One datagram. Returns its length; recvfrom: more than `cap` if it did not fit (its true size where
// the OS tells it, Linux; else cap + 1; `buf` holds its first `cap` bytes); NETIO_EINVAL on a stream
// socket; as above. `from` may be NULL. sendto: a peer in the other form (IPv4 from an IPv6 socket)
// is mapped; more than the OS takes is NETIO_EMSGSIZE.
NETIO_API ptrdiff_t netio_recvfrom(netio_socket s, void *buf, size_t cap, netio_addr *from,
                                   int timeout_ms);
NETIO_API ptrdiff_t netio_sendto(netio_socket s, const void *data, size_t len, const netio_addr *to,
                                 int timeout_ms);

// Ask by datagram: send, wait, send again with growing pauses (first_ms doubled), `tries` times.
// `match` says whether a datagram is the answer (NULL: any from `to`); others are dropped.
// Returns the answer's length; NETIO_ETIMEDOUT after exactly `tries` sends; NETIO_EINVAL; as above.
NETIO_API ptrdiff_t netio_query(netio_socket s, const netio_addr *to, netio_buf request,
                                netio_room answer, bool (*match)(void *user, netio_buf got),
                                void *user, int tries, int first_ms);

#ifndef NETIO_NO_UNIX
// Remove the socket file of a listener or datagram socket that was closed. One that somebody
// answers on (a successor's) stays. Returns 0; NETIO_ENOENT, NETIO_EADDRINUSE, NETIO_EACCES;
// NETIO_EINVAL (not a path, or not a socket).
NETIO_API int netio_unix_unlink(const netio_addr *a);
#endif // NETIO_NO_UNIX

//================================================================================================
// >>option                                                       socket options and diagnostics
//
// An option the platform or socket lacks is NETIO_ENOTSUP, a value out of range, or too late (after
// bind), NETIO_EINVAL; never ignored. Values are read back as the OS has them: Linux doubles buffer
// sizes.
//================================================================================================

typedef enum netio_option {
    NETIO_OPT_NODELAY = 1,    // 0, 1. Send small pieces at once
    NETIO_OPT_CORK,           // 0, 1. Hold small pieces back
    NETIO_OPT_QUICKACK,       // 0, 1
    NETIO_OPT_KEEPALIVE,      // 0, 1. Streams only
    NETIO_OPT_KEEPIDLE,       // seconds of silence before the first probe
    NETIO_OPT_KEEPINTVL,      // seconds between probes
    NETIO_OPT_KEEPCNT,        // unanswered probes until NETIO_ETIMEDOUT
    NETIO_OPT_USER_TIMEOUT,   // milliseconds sent data may stay unacknowledged
    NETIO_OPT_LINGER,         // -1 off, 0 reset on close; seconds block close: see close_gracefully
    NETIO_OPT_SNDBUF,         // bytes
    NETIO_OPT_RCVBUF,         // bytes
    NETIO_OPT_SNDTIMEO,       // ms, for code that is not netio's: netio's calls have timeout_ms
    NETIO_OPT_RCVTIMEO,       // ms, likewise
    NETIO_OPT_REUSEADDR,      // 0, 1. Before bind; netio sets the right one by itself
    NETIO_OPT_REUSEPORT,      // 0, 1. Before bind
    NETIO_OPT_EXCLUSIVE,      // 0, 1. Windows only, before bind: nobody else may bind this port
    NETIO_OPT_V6ONLY,         // 0, 1. Before bind
    NETIO_OPT_FASTOPEN,       // listener: queue length, 0 off. Connecting: NETIO_OPT_FASTOPEN_CONNECT
    NETIO_OPT_FASTOPEN_CONNECT, // 0, 1. Data of the first send travels in the SYN
    NETIO_OPT_CONGESTION,     // text: "cubic", "bbr"
    NETIO_OPT_DEVICE,         // text: interface name to use exclusively
    NETIO_OPT_MARK,           // number for the routing rules (Linux)
    NETIO_OPT_TTL,            // 1..255 hops, IPv4 or IPv6
    NETIO_OPT_TOS,            // 0..255, traffic class
    NETIO_OPT_BROADCAST,      // 0, 1. Datagrams only
    NETIO_OPT_MULTICAST_TTL,  // 0..255
    NETIO_OPT_MULTICAST_LOOP, // 0, 1. Set on sender and receiver: systems differ whose counts
    NETIO_OPT_DONTFRAG,       // 0, 1
    NETIO_OPT_HDRINCL,        // 0, 1. Raw sockets
    NETIO_OPT_BUSY_POLL,      // microseconds
    NETIO_OPT_NOTSENT_LOWAT,  // bytes
    // Read only.
    NETIO_OPT_ERROR = 100, // pending error as NETIO_E*, cleared by reading
    NETIO_OPT_TYPE,        // NETIO_STREAM, ...; another: minus the OS's number
    NETIO_OPT_FAMILY,      // as netio_addr_family
    NETIO_OPT_LISTENING,   // 0, 1
    NETIO_OPT_MTU,         // bytes, of a connected socket's path
    NETIO_OPT_READABLE,    // bytes that wait to be received
    NETIO_OPT_UNSENT       // bytes the OS holds that the peer has not acknowledged
} netio_option;

// Returns 0; NETIO_ENOTSUP, NETIO_EINVAL, NETIO_EACCES, NETIO_ENODEV (DEVICE), NETIO_ENOENT
// (CONGESTION), NETIO_EBADF, NETIO_ENOTSOCK. get_option_text: the length; NETIO_ENOSPC.
NETIO_API int netio_set_option(netio_socket s, int option, int value);
NETIO_API int netio_get_option(netio_socket s, int option, int *value);
NETIO_API int netio_set_option_text(netio_socket s, int option, const char *text);
NETIO_API int netio_get_option_text(netio_socket s, int option, char *buf, size_t cap);

// The OS's own level and name, for what the table lacks. `*len` is room in, size out.
NETIO_API int netio_set_option_raw(netio_socket s, int level, int name, const void *value,
                                   size_t len);
NETIO_API int netio_get_option_raw(netio_socket s, int level, int name, void *value, size_t *len);

// Whether this system has it, found out by trying on sockets of its own: what a header promises a
// kernel may lack. false for an unknown number.
NETIO_API bool netio_option_supported(int option);
NETIO_API const char *netio_option_name(int option); // "NODELAY"; "" if unknown

// Keepalive in one call. Returns 0; NETIO_EINVAL (not positive, or above 32,767), NETIO_ENOTSUP.
// Windows  before 10 version 1709 `count` is the OS's 10: for others idle and interval are set and
//          NETIO_ENOTSUP is returned.
NETIO_API int netio_set_keepalive(netio_socket s, int idle_s, int interval_s, int count);

#ifndef NETIO_NO_POLLER
//================================================================================================
// >>poller                                                              readiness of many sockets
//
// One meaning on every backend: READ and WRITE are promised and mean "call and find out"; a
// hang-up, error, half-close or failed connect arrives as whichever of them is armed, data always
// before its end. A registration without interest reports nothing and wakes nobody. Remove a socket
// before closing it: drop does both. If that is forgotten, the registration is found stale and
// dropped; no wait spins on it. On Windows poll and select cannot tell a closed socket from one that
// took over its number: there the rule has no net under it.
//
// Add, modify and remove take constant time. Memory: at most 64 bytes for each registration.
//================================================================================================

typedef struct netio_poller netio_poller;

// AUTO: the best this system has: epoll, kqueue, WSAPoll, poll, select, in this order.
// AFD and IOURING are names for later: NETIO_ENOTSUP.
// clang-format off
enum { NETIO_BACKEND_AUTO, NETIO_BACKEND_SELECT, NETIO_BACKEND_POLL, NETIO_BACKEND_WSAPOLL,
       NETIO_BACKEND_EPOLL, NETIO_BACKEND_KQUEUE, NETIO_BACKEND_AFD, NETIO_BACKEND_IOURING };
// clang-format on

typedef struct netio_event {
    void *user;
    netio_socket socket;
    unsigned events; // NETIO_EV_*
} netio_event;

// Gives a poller; netio_poller_close frees it. Returns 0; NETIO_ENOTSUP if the backend is not in
// this build or system; NETIO_ENOMEM, NETIO_EMFILE.
NETIO_API int netio_poller_open(netio_poller **out, int backend);
NETIO_API void netio_poller_close(netio_poller *p); // the sockets stay open; NULL: nothing

// Register a socket, on POSIX any descriptor (a regular file is always ready; on kqueue until its
// end), with an interest of READ, WRITE, both or none, and the flags EDGE and ONESHOT. After a
// one-shot report the registration has no interest until modify.
// Returns 0; add: NETIO_EEXIST (it has an interest already), NETIO_ENOSPC (the OS refuses so many),
// NETIO_ENOMEM, NETIO_EBADF; modify, remove: NETIO_ENOENT (not registered); NETIO_EINVAL (flags),
// NETIO_ENOTSUP (EDGE on select, poll, WSAPoll).
NETIO_API int netio_poller_add(netio_poller *p, netio_socket s, unsigned events, void *user);
NETIO_API int netio_poller_modify(netio_poller *p, netio_socket s, unsigned events, void *user);
NETIO_API int netio_poller_remove(netio_poller *p, netio_socket s);

// Remove and close; closes also what is not registered. Returns as netio_close.
NETIO_API int netio_poller_drop(netio_poller *p, netio_socket *s);

// One event a socket. Events that lie in your array already are not taken back when you remove
// their socket: with handlers that drop each other's sockets, defer the freeing to the array's end.
// Returns how many were filled, at most 512; 0 when time is over or it was woken; NETIO_EINVAL
// (cap 0).
NETIO_API ptrdiff_t netio_poller_wait(netio_poller *p, netio_event *events, size_t cap,
                                      int timeout_ms);

// End the current or next wait. Thread: any, and signal handlers.
NETIO_API int netio_poller_wake(netio_poller *p);

NETIO_API int netio_poller_backend(const netio_poller *p);     // NETIO_BACKEND_*: which one it is
NETIO_API netio_socket netio_poller_fd(const netio_poller *p); // to nest it: epoll, kqueue
NETIO_API size_t netio_poller_count(const netio_poller *p);    // registrations
NETIO_API uint64_t netio_poller_stale(const netio_poller *p);  // dropped: closed without remove
NETIO_API const char *netio_backend_name(int backend);         // "epoll"; "" if unknown
NETIO_API bool netio_backend_available(int backend);           // AUTO: true
#endif                                                         // NETIO_NO_POLLER

#ifdef __cplusplus
}
#endif
#endif // NETIO_H
