/*
netio.h: portable sockets, pollers and an event loop. C99 and C++11, one file, no dependency but
the OS.

    // echo.c: cc echo.c -o echo          (Windows: gcc echo.c -lws2_32, or cl echo.c)
    #define NETIO_IMPLEMENTATION          // in exactly one file of the program
    #include "netio.h"

    static void on_data(netio_conn c, const void *data, size_t len)
    {
        netio_conn_write(c, data, len);
    }

    int main(void)
    {
        static const netio_handler echo = {.on_data = on_data};
        netio_loop *loop;
        if (netio_loop_create(&loop, NULL) < 0) return 1;
        if (netio_listener_open(NULL, loop, ":7777", &echo, NULL) < 0) return 1;
        return netio_loop_run(loop) < 0;
    }

or without a loop, one call after the other:

    netio_socket s;
    char buf[4096];
    ptrdiff_t n;
    if (netio_connect(&s, "example.com:7", NULL, 5000) < 0) return 1;
    if (netio_send_all(s, "hello", 5, NULL, 5000) < 0) return 1;
    n = netio_recv(s, buf, sizeof buf, 5000);
    netio_close(&s);

BUILD  Linux, macOS: nothing to add (before glibc 2.34: -pthread). BSD: -pthread. Windows: link
ws2_32; MSVC does it by itself. The implementation asks for the platform's full interface by
itself, so it also builds with -std=c99; under such a strict mode include it before any system
header.

CONTENTS  search for >>name to reach the declarations, >>name.c to reach the code

    >>config   types, switches             >>socket   TCP, UDP, Unix: open, send, receive
    >>error    one error space             >>option   the option table
    >>time     clock and deadlines         >>poller   readiness of many sockets
    >>addr     addresses as values         >>loop     timers, tasks, signals, watches, lookups
    >>resolve  names, interfaces           >>filter   what TLS plugs into
    >>frame    bytes in, frames out        >>conn     connections, listeners, dialing
    >>stream   blocking reads, framed      >>udp      datagrams on the loop
    >>queue    bytes in, bytes out         >>network  a network in memory
    >>http     message heads               >>helper   back-off, buckets, pools
    >>websocket >>proxy >>tunnel           handshakes: RFC 6455, PROXY, SOCKS5 and CONNECT

    Code only: >>platform >>os-posix >>os-windows >>select >>poll >>epoll >>kqueue >>winselect
    >>wsapoll >>afd >>framed >>readiness >>memory >>run

NAMES  A bare verb acts on a socket (netio_send, netio_close). Everything else names its object
(netio_conn_write, netio_poller_wait). Four habits make most signatures guessable:
  - what is being made comes first, as a pointer; where a handle may be unwanted it may be NULL;
  - then inputs, outputs, options (NULL: all defaults), and timeout_ms last;
  - a buffer and its length stand side by side;
  - callbacks other than a handler's get the `user` pointer first.

ERRORS  Calls return int or ptrdiff_t: negative is a NETIO_E*, named after the errno you know. Test
`< 0`. Outputs are written on success only, but for `done` counts. Nothing prints, aborts, or needs
errno; netio_os_error() has the OS's own number.

WAITING  timeout_ms is 0: don't wait (NETIO_EAGAIN if it would), negative: no limit, else
milliseconds on the monotonic clock (NETIO_ETIMEDOUT when they are over; the socket stays usable).
Signals and partial progress never extend it. For one deadline over several calls see
netio_deadline. Only timeout_ms decides: the OS's blocking mode of a socket does not matter to
sends and receives. (On Windows it does, and for sends on macOS and NetBSD: adopt a socket that was
made elsewhere first.)

THREADS  Different sockets: any threads. One socket: one thread may receive while one sends; two
senders, or two receivers, need a lock of yours. A poller: one thread, but for netio_poller_wake. A
loop and all it owns: the thread that runs it; only netio_loop_post, _stop and _stats may come from
elsewhere. Any call is legal in any callback, but running or destroying the same loop (NETIO_EBUSY);
no callback runs inside a call of yours.

OWNERSHIP  borrows: during the call. copies: before returning. takes: netio's if the call succeeds,
else still yours. lends: until the callback returns, or the next call on the same object. gives:
yours; the comment says what frees it.

OPTIONS STRUCTS  `= {0}` in C, `= {}` in C++ is the usual, safe choice in every field; what 0 means
is written beside it.

SIGNALS, PROCESSES  No signal handler is touched and no SIGPIPE reaches the program. EINTR is
retried within the deadline. Every descriptor is close-on-exec from birth, atomically where the OS
can (not on macOS; not sockets that Windows accepted). There is no init call: Winsock is started by
the first call that needs it. netio reads no environment variable.

SWITCHES  define before including, the same in every file
    NETIO_STATIC            with NETIO_IMPLEMENTATION: a private copy, every function static
    NETIO_API               replaces `extern`, for example a dllexport
    NETIO_NO_UNIX           no Unix-domain sockets; netio_pair then uses loopback TCP and UDP
    NETIO_NO_THREADS        no resolver thread: a lookup with a bounded time is NETIO_ENOTSUP
    NETIO_NO_POLLER         leave the poller out, and the loop with it
    NETIO_NO_LOOP           leave out loop, filter, conn, udp, network
    NETIO_NO_FRAME          leave out framing, and the loop with it
    NETIO_NO_STREAM _HTTP _CHUNKED _WEBSOCKET _PROXY _SOCKS          leave one section out
    NETIO_NO_LINE _DELIMITER _FIXED _LENGTH _VARINT _NETSTRING _COBS _SLIP     or one format
    NETIO_NO_HELPERS        leave out the helpers
    NETIO_NO_SELECT _POLL _WSAPOLL _EPOLL _KQUEUE _AFD     leave one backend out
  define in the file that implements
    NETIO_MALLOC(size) NETIO_REALLOC(ptr, size) NETIO_FREE(ptr)       default: stdlib; all or none,
                            thread-safe. Used by pollers, loops, lookups with a bounded time, and
                            helpers with a create
    NETIO_ASSERT(expr)      our broken invariants; default: nothing
    NETIO_ON_OP(op, socket, result)    runs after every operation on a socket: op is a NETIO_OP_*,
                            result its bytes or error. Must not call netio on the same socket.
    NETIO_DEBUG             1: assert that loops are called from their thread; count and log turns
                            that hold the loop for longer than netio_loop_opts.slow_ms
    NETIO_GETADDRINFO, NETIO_FREEADDRINFO    replace the system's resolver, for tests; both or none
*/
#if defined(NETIO_IMPLEMENTATION) && !defined(_WIN32)
// The C library fixes what it shows at the first system header, so this comes before any of them.
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

#ifndef NETIO_H
#define NETIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NETIO_VERSION_MAJOR 0
#define NETIO_VERSION_MINOR 1
#define NETIO_VERSION_PATCH 0
#define NETIO_VERSION "0.1.0"

#if (defined(NETIO_NO_POLLER) || defined(NETIO_NO_FRAME)) && !defined(NETIO_NO_LOOP)
#define NETIO_NO_LOOP // nothing to wait with, or to read frames with
#endif

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
// for never. A call that begins past it tries once without waiting: NETIO_EAGAIN then says that
// time is over.
NETIO_API int64_t netio_deadline(int timeout_ms);
NETIO_API int netio_deadline_left(int64_t deadline);

//================================================================================================
// >>addr                                                     addresses: IPv4, IPv6+zone, Unix path
//
// One text form everywhere: "192.0.2.1:80", "[2001:db8::1]:443", "[fe80::1%eth0]:9", ":8080" and
// "*:8080" (any interface, dual-stack), "unix:/run/app.sock", "unix:@abstract". Parsing is strict,
// formatting is RFC 5952 and gives back what was parsed, in canonical form (":8080": "[::]:8080").
// No heap, no names; any thread.
//================================================================================================

#define NETIO_ADDR_TEXT 144 // room for any formatted address and its NUL

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
//          zone's name), NETIO_ENOTSUP ("unix:" with NETIO_NO_UNIX; "unix:@" on others than Linux).
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
// >>resolve                                                                  names and interfaces
//
// Literals never reach the system's resolver, so they work with the network down. With a bounded
// time the lookup runs on a thread of its own, and the call returns on time even if the resolver
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
//          a literal nor a name), NETIO_ENOENT (no such service), NETIO_EAGAIN (timeout_ms 0 and
//          not a literal), NETIO_EBUSY, NETIO_ENOMEM; NETIO_ENOTSUP (bounded, NETIO_NO_THREADS).
// Thread   any.
NETIO_API ptrdiff_t netio_resolve(const char *host_port, netio_addr *out, size_t cap,
                                  const netio_resolve_opts *opts, int timeout_ms);

// The name of an address. Returns its length; NETIO_EAI_NONAME if it has none; NETIO_ENOSPC;
// NETIO_EINVAL (not IP); as netio_resolve.
NETIO_API int netio_resolve_reverse(const netio_addr *a, char *buf, size_t cap, int timeout_ms);

// Port of a service name ("http") over "tcp" or "udp". Returns it; NETIO_ENOENT, NETIO_EINVAL.
NETIO_API int netio_service_port(const char *name, const char *protocol);

enum { NETIO_IF_UP = 1, NETIO_IF_LOOPBACK = 2, NETIO_IF_BROADCAST = 4, NETIO_IF_MULTICAST = 8 };

typedef struct netio_interface { // one for each address of an interface
    uint32_t index;
    unsigned flags; // NETIO_IF_*
    char name[64];
    netio_addr addr;      // port 0
    netio_addr broadcast; // the subnet's broadcast address, IPv4; zero: none
    uint8_t prefix_bits;  // of the subnet
} netio_interface;

// The addresses of this machine. Returns how many there are, even above `cap`; 0 if there are none;
// NETIO_EINVAL, NETIO_ENOMEM, NETIO_EMFILE.
// (The OS's call uses the heap, and on Windows NETIO_MALLOC.)
NETIO_API ptrdiff_t netio_interfaces(netio_interface *out, size_t cap);

// The number of an interface by its name ("eth0"), its number ("2"), or one of its addresses
// ("192.0.2.7"). Returns it; 0: there is none.
NETIO_API uint32_t netio_interface_index(const char *text);

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
    int unix_mode;               // permissions of the socket file; 0: as the umask says. Windows:
                                 // NETIO_ENOTSUP
    bool balance;                // listen, bind: one port for several sockets, the kernel balances;
                                 // NETIO_ENOTSUP where it does not: all but Linux and FreeBSD
    bool exclusive;              // Windows: nobody else may bind it, and a restart may have to wait
                                 // for old connections; nothing elsewhere, where that is the rule
    bool share_group;            // bind: several receivers of one multicast group on this machine
    bool v6_only;                // listen, bind: no IPv4 through an IPv6 socket
    bool inheritable;            // child processes keep it
    const char *local;           // connect: "addr:port" to come from; NULL: the OS chooses
    const char *const *fallback; // connect: more "host:port" to try; NULL: none
    size_t fallback_count;
    int stagger_ms;                // connect: head start of each address (RFC 8305); 0: 250
    netio_resolve_opts resolve;    // connect: how the name is looked up
    const netio_setting *settings; // further options, in order; NULL: none
    size_t setting_count;
    netio_error *errors; // connect: on failure [0] the verdict, then one per attempt
    size_t error_cap;    // of `errors`; those not needed are zeroed
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
// Returns  0; NETIO_ETIMEDOUT (also if some timed out and the others failed), NETIO_EAGAIN
//          (timeout_ms 0 and not at once: see netio_connect_start), else the most telling error
//          of the attempts (see opts->errors); as netio_resolve.
// See      RFC 8305 sections 4 and 5
NETIO_API int netio_connect(netio_socket *out, const char *address, const netio_socket_opts *opts,
                            int timeout_ms);

// The same by hand for one address: start, wait until writable, finish. opts->local, type, settings
// and inheritable count.
// Returns  0 when connected; start: NETIO_EINPROGRESS; NETIO_EAGAIN (Unix: the peer's backlog is
//          full; try again later) and all others leave no socket. finish: NETIO_EAGAIN,
//          NETIO_ETIMEDOUT, NETIO_ECONNREFUSED...; the socket stays yours to close.
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
// duplicates share. release puts back what adopt found (Windows: it stays non-blocking); `found`
// may be NULL.
// Returns 0; NETIO_EBADF, NETIO_ENOTSOCK (Windows: NETIO_EBADF).
NETIO_API int netio_adopt(netio_socket s, unsigned *found);
NETIO_API int netio_release(netio_socket s, unsigned found);

// Any family, type and protocol by the OS's numbers (AF_NETLINK, IPPROTO_ICMP, ...); use
// netio_addr_from_sockaddr with it. bind, listen and connect such a socket with the OS's calls.
// Returns 0; NETIO_EAFNOSUPPORT, NETIO_ENOTSUP (type, protocol), NETIO_EACCES.
NETIO_API int netio_open(netio_socket *out, int os_family, int os_type, int os_protocol);

// Close at once; what the OS already took is still sent, but received bytes that were not read
// make TCP reset the peer: see netio_close_gracefully. `*s` becomes NETIO_INVALID_SOCKET.
// Returns 0; NETIO_EBADF (the invalid value, or a number that is not open).
NETIO_API int netio_close(netio_socket *s);

// Shut down, discard what the peer still sends until its end (at most `max` bytes), close: nothing
// that was sent gets lost. Returns 0; NETIO_ETIMEDOUT, NETIO_EMSGSIZE. The socket is closed anyway.
NETIO_API int netio_close_gracefully(netio_socket *s, size_t max, int timeout_ms);

NETIO_API int netio_abort(netio_socket *s); // close with RST; datagram: NETIO_ENOTSUP, still open
NETIO_API int netio_shutdown(netio_socket s, int how); // NETIO_SHUT_*; again: 0; NETIO_ENOTCONN
NETIO_API int netio_local_addr(netio_socket s, netio_addr *out); // unbound: any, port 0
NETIO_API int netio_peer_addr(netio_socket s, netio_addr *out);  // NETIO_ENOTCONN
NETIO_API int netio_set_inheritable(netio_socket s, bool on);    // by child processes

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

// The same over pieces: any number on streams, 64 a system call (recvv fills at most 64 a call); a
// datagram or record goes in one call or not at all (more than 64 pieces: NETIO_EMSGSIZE, nothing
// sent).
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

// One datagram. Returns its length; recvfrom: more than `cap` if it did not fit (its true size
// where the OS tells it, Linux, else cap + 1; `buf` has its first `cap` bytes); NETIO_EINVAL on a
// stream socket, whose bytes may be lost by that; as above. `from` may be NULL. sendto: a peer in
// the other form (IPv4 from an IPv6 socket) is mapped, an any-address is this machine; more than
// the OS takes is NETIO_EMSGSIZE.
NETIO_API ptrdiff_t netio_recvfrom(netio_socket s, void *buf, size_t cap, netio_addr *from,
                                   int timeout_ms);
NETIO_API ptrdiff_t netio_sendto(netio_socket s, const void *data, size_t len, const netio_addr *to,
                                 int timeout_ms);

// One datagram of a batch, received or to send. What the OS does not tell, or was not asked for
// with NETIO_OPT_RECV_*, is zero.
typedef struct netio_datagram {
    void *data;       // only read when sending
    size_t len;       // bytes in use
    size_t cap;       // receiving: room
    size_t full;      // received: true length, more than `cap` if it was cut (then Linux tells it,
                      // elsewhere cap + 1)
    netio_addr peer;  // who sent it, or whom to send it to; zero: the connected peer
    netio_addr local; // RECV_LOCAL: where it was sent to, port 0; to send: source, or zero
    uint32_t ifindex; // RECV_LOCAL: the interface it came by; to send: way out, or 0
    uint32_t segment; // RECV_SEGMENTS: several datagrams lie in `data`, each of this size, the last
                      // perhaps shorter; to send: cut `data` into such (at most 64). 0: one
    uint64_t
        time_ns;    // RECV_TIME: when it arrived, on the wall clock, since 1970. This, ttl and tos
                    // are not looked at when sending
    uint8_t ttl;    // RECV_TTL: hops left
    uint8_t tos;    // RECV_TOS: traffic class with its ECN bits
    bool truncated; // did not fit into `cap`
} netio_datagram;

// Many datagrams in one system call where the OS has it (Linux; 64 a call), else one each. Set
// `data` and `cap` before receiving; what was received can be sent back as it is. recv_batch waits
// for the first and takes what is there; send_batch sends what it can within the time. A source
// address that is a group's, broadcast or any is left to the OS. Where the kernel cannot cut
// `segment`s, or a device refuses, they are sent one by one.
//
// Returns  how many were done; an error only if that is none, as recvfrom and sendto; NETIO_EINVAL
//          (a stream socket, whose bytes may be lost by receiving so)
NETIO_API ptrdiff_t netio_recv_batch(netio_socket s, netio_datagram *msgs, size_t count,
                                     int timeout_ms);
NETIO_API ptrdiff_t netio_send_batch(netio_socket s, const netio_datagram *msgs, size_t count,
                                     int timeout_ms);

// Multicast membership on interface number `ifindex` (0: the group's zone, else the OS chooses),
// from `source` alone (NULL: anyone). A socket gets the groups that it joined itself, not those of
// others on this machine. Several receivers on one port: opts->share_group of netio_bind.
// (Linux, IPv6: a group comes by whatever interface somebody here joined it on: see ifindex.)
//
// Returns  0; NETIO_EINVAL (no group, families differ), NETIO_EEXIST (joined already), NETIO_ENOENT
//          (leave: not joined), NETIO_ENODEV (no such interface, or no route to the group),
//          NETIO_ENOBUFS (too many groups), NETIO_ENOTSUP (source: NetBSD, OpenBSD)
// See      RFC 3678
NETIO_API int netio_multicast_join(netio_socket s, const netio_addr *group, uint32_t ifindex,
                                   const netio_addr *source);
NETIO_API int netio_multicast_leave(netio_socket s, const netio_addr *group, uint32_t ifindex,
                                    const netio_addr *source);

// Ask by datagram: send, wait, send again with growing pauses (first_ms doubled), `tries` times.
// `match` says whether a datagram from `to` is the answer (NULL: any; to a group or broadcast
// address: from anybody); others are dropped.
// Returns the answer's length (above answer.cap: cut); NETIO_ETIMEDOUT after exactly `tries` sends;
// NETIO_EINVAL; as above. Takes at most first_ms * (2^tries - 1).
NETIO_API ptrdiff_t netio_query(netio_socket s, const netio_addr *to, netio_buf request,
                                netio_room answer, bool (*match)(void *user, netio_buf got),
                                void *user, int tries, int first_ms);

#ifndef NETIO_NO_UNIX
// Remove the socket file of a listener or datagram socket that was closed. One that somebody
// answers on (a successor's) stays. Returns 0; NETIO_ENOENT, NETIO_EADDRINUSE, NETIO_EACCES;
// NETIO_EINVAL (not a path, or not a socket).
NETIO_API int netio_unix_unlink(const netio_addr *a);

#define NETIO_FDS_MAX 64 // descriptors in one message

// Pass descriptors along with `len` >= 1 bytes over a Unix socket; the sender's stay open. recv_fds
// takes up to `*count` of them (at most NETIO_FDS_MAX), gives them close-on-exec, sets `*count`;
// surplus ones are closed (NETIO_EMSGSIZE: `fds` has the first `*count`; how many bytes came is
// lost with it, so give the stream up).
// netio_recv and others let the kernel close what comes unexpected.
//
// Returns  bytes, as send and recv; NETIO_EINVAL (no Unix socket, no bytes), NETIO_EMSGSIZE (more
//          than NETIO_FDS_MAX). Windows: NETIO_ENOTSUP
NETIO_API ptrdiff_t netio_send_fds(netio_socket s, const void *data, size_t len,
                                   const netio_socket *fds, size_t count, int timeout_ms);
NETIO_API ptrdiff_t netio_recv_fds(netio_socket s, void *buf, size_t cap, netio_socket *fds,
                                   size_t *count, int timeout_ms);

typedef struct netio_cred {
    int64_t pid; // -1: the OS does not say
    int64_t uid; // -1 on Windows, as gid
    int64_t gid;
} netio_cred;

// Who was at the other end when it connected, as the kernel knows it.
// Returns 0; NETIO_ENOTSUP (no Unix socket, old Windows), NETIO_ENOTCONN.
NETIO_API int netio_peer_cred(netio_socket s, netio_cred *out);
#endif // NETIO_NO_UNIX

//================================================================================================
// >>option                                                       socket options and diagnostics
//
// An option the platform or socket lacks is NETIO_ENOTSUP, a value out of range, or too late (after
// bind), NETIO_EINVAL; never ignored. Values are read back as the OS has them: Linux doubles buffer
// sizes.
//================================================================================================

typedef enum netio_option {
    NETIO_OPT_NODELAY = 1,      // 0, 1. Send small pieces at once
    NETIO_OPT_CORK,             // 0, 1. Hold small pieces back
    NETIO_OPT_QUICKACK,         // 0, 1. Acknowledge at once; the kernel ends it by itself again
    NETIO_OPT_KEEPALIVE,        // 0, 1. Streams only
    NETIO_OPT_KEEPIDLE,         // seconds of silence before the first probe
    NETIO_OPT_KEEPINTVL,        // seconds between probes
    NETIO_OPT_KEEPCNT,          // unanswered probes until NETIO_ETIMEDOUT
    NETIO_OPT_USER_TIMEOUT,     // milliseconds sent data may stay unacknowledged
    NETIO_OPT_LINGER,           // -1 off, 0 reset on close; seconds block: see close_gracefully
    NETIO_OPT_SNDBUF,           // bytes
    NETIO_OPT_RCVBUF,           // bytes
    NETIO_OPT_SNDTIMEO,         // ms, for code that is not netio's: netio's calls have timeout_ms
    NETIO_OPT_RCVTIMEO,         // ms, likewise
    NETIO_OPT_REUSEADDR,        // 0, 1. Before bind; netio sets the right one by itself
    NETIO_OPT_REUSEPORT,        // 0, 1. Before bind
    NETIO_OPT_EXCLUSIVE,        // 0, 1. Windows only, before bind: nobody else may bind this port
    NETIO_OPT_V6ONLY,           // 0, 1. Before bind
    NETIO_OPT_FASTOPEN,         // listener: queue length, 0 off. NETIO_ENOTSUP if sysctl has it off
    NETIO_OPT_FASTOPEN_CONNECT, // 0, 1. Data of the first send travels in the SYN
    NETIO_OPT_CONGESTION,       // text: "cubic", "bbr"
    NETIO_OPT_DEVICE,           // text: use this interface only; "": any
    NETIO_OPT_MARK,             // number for the routing rules
    NETIO_OPT_TTL,              // 1..255 hops, IPv4 or IPv6
    NETIO_OPT_TOS,              // 0..255, traffic class
    NETIO_OPT_BROADCAST,        // 0, 1. Datagrams only
    NETIO_OPT_MULTICAST_TTL,  // 0..255 hops; 1: this network, 0: this machine (Linux: if a member)
    NETIO_OPT_MULTICAST_LOOP, // 0, 1. This machine gets copies. Set it on sender and receivers:
                              // on Windows the receiver's counts, elsewhere the sender's
    NETIO_OPT_MULTICAST_IF,   // interface number to send to groups by; 0: the OS chooses. One
                              // without an IPv4 address reads back as 0 on IPv4 sockets
    NETIO_OPT_DONTFRAG,       // 0, 1. What exceeds the path is NETIO_EMSGSIZE
    NETIO_OPT_HDRINCL,        // 0, 1. Raw sockets
    NETIO_OPT_BUSY_POLL,      // microseconds to look for packets before sleeping
    NETIO_OPT_NOTSENT_LOWAT,  // bytes not sent yet, below which it is writable
    NETIO_OPT_RECV_LOCAL,     // 0, 1. Fill netio_datagram.local and .ifindex
    NETIO_OPT_RECV_TTL,       // 0, 1. Fill netio_datagram.ttl
    NETIO_OPT_RECV_TOS,       // 0, 1. Fill netio_datagram.tos
    NETIO_OPT_RECV_TIME,      // 0, 1. Fill netio_datagram.time_ns, from a moment after this on
    NETIO_OPT_RECV_SEGMENTS,  // 0, 1. Let the kernel join datagrams (GRO): netio_datagram.segment
    // Read only.
    NETIO_OPT_ERROR = 100, // pending error as NETIO_E*, cleared by reading
    NETIO_OPT_TYPE,        // NETIO_STREAM, ...; another: minus the OS's number
    NETIO_OPT_FAMILY,      // as netio_addr_family
    NETIO_OPT_LISTENING,   // 0, 1
    NETIO_OPT_MTU,         // bytes, of a connected socket's path
    NETIO_OPT_READABLE,    // bytes that wait to be received
    NETIO_OPT_UNSENT,      // bytes the OS holds that the peer has not acknowledged
    NETIO_OPT_DROPS        // datagrams lost because the receive buffer was full (Linux)
} netio_option;

// Returns 0; NETIO_ENOTSUP, NETIO_EINVAL, NETIO_EACCES, NETIO_ENODEV (DEVICE), NETIO_ENOENT
// (CONGESTION), NETIO_ENOTCONN (MTU), NETIO_EBADF, NETIO_ENOTSOCK. get_option_text: the length;
// NETIO_ENOSPC.
NETIO_API int netio_set_option(netio_socket s, int option, int value);
NETIO_API int netio_get_option(netio_socket s, int option, int *value);
NETIO_API int netio_set_option_text(netio_socket s, int option, const char *text);
NETIO_API int netio_get_option_text(netio_socket s, int option, char *buf, size_t cap);

// The OS's own level and name, for what the table lacks. `*len` is room in, size out.
NETIO_API int netio_set_option_raw(netio_socket s, int level, int name, const void *value,
                                   size_t len);
NETIO_API int netio_get_option_raw(netio_socket s, int level, int name, void *value, size_t *len);

// Whether this system has it, found out by trying on sockets of its own: what a header promises a
// kernel may lack. false for an unknown number. (HDRINCL is not tried: it needs rights.)
NETIO_API bool netio_option_supported(int option);
NETIO_API const char *netio_option_name(int option); // "NODELAY"; "" if unknown

// Keepalive in one call. Returns 0; NETIO_EINVAL (not positive; times above 32,767, a count above
// 127), NETIO_ENOTSUP.
// Windows  before 10 version 1709 `count` is the OS's 10: for others idle and interval are set and
//          NETIO_ENOTSUP is returned.
NETIO_API int netio_set_keepalive(netio_socket s, int idle_s, int interval_s, int count);

// Settings that belong together, for netio_set_options. Gives a static array and its length; 0:
// unknown preset. (In `settings` of netio_socket_opts the first that the system lacks fails the
// call.)
//     LATENCY  NODELAY, QUICKACK, TOS low delay    BULK     buffers of 1 MiB
//     SERVER   keepalive 60/10/5, USER_TIMEOUT 30 s, NODELAY
//     BATTERY  keepalive 15 min/1 min/3, NODELAY off: few wakeups of the radio
enum { NETIO_PRESET_LATENCY = 1, NETIO_PRESET_BULK, NETIO_PRESET_SERVER, NETIO_PRESET_BATTERY };
NETIO_API size_t netio_preset(int preset, const netio_setting **settings);

// Applies settings in order, going on where this system lacks one: `*skipped` (may be NULL) gets a
// bit i for settings[i], of the first 32. Returns 0, also if some were skipped; else the first
// other error, at which it stops.
NETIO_API int netio_set_options(netio_socket s, const netio_setting *settings, size_t count,
                                uint32_t *skipped);

// What TCP knows of a connection; what the OS does not tell is 0.
typedef struct netio_tcp_info {
    int state;            // NETIO_TCP_*
    uint32_t rtt_us;      // smoothed round-trip time
    uint32_t rtt_var_us;  // its variation
    uint32_t mss;         // bytes of a segment
    uint32_t cwnd;        // congestion window, in segments
    uint32_t retransmits; // segments (macOS: packets) sent again since the beginning
    uint64_t unacked;     // Linux: segments on the way; Windows: bytes
    uint64_t bytes_sent;
    uint64_t bytes_received;
} netio_tcp_info;

// clang-format off
enum { NETIO_TCP_CLOSED, NETIO_TCP_LISTEN, NETIO_TCP_SYN_SENT, NETIO_TCP_SYN_RECEIVED,
       NETIO_TCP_ESTABLISHED, NETIO_TCP_FIN_WAIT_1, NETIO_TCP_FIN_WAIT_2, NETIO_TCP_CLOSE_WAIT,
       NETIO_TCP_CLOSING, NETIO_TCP_LAST_ACK, NETIO_TCP_TIME_WAIT };
// clang-format on

// Returns 0; NETIO_ENOTSUP (not TCP; OpenBSD, NetBSD; Windows before 10 version 1703), NETIO_EBADF.
NETIO_API int netio_tcp_info_get(netio_socket s, netio_tcp_info *out);
NETIO_API const char *netio_tcp_state_name(int state); // "ESTABLISHED"; "" if unknown

#ifndef NETIO_NO_POLLER
//================================================================================================
// >>poller                                                              readiness of many sockets
//
// One meaning on every backend: READ and WRITE are promised and mean "call and find out"; a
// hang-up, error, half-close or failed connect arrives as whichever of them is armed, data always
// before its end. A registration without interest reports nothing and wakes nobody. Remove a socket
// before closing it: drop does both. If that is forgotten, the registration is found stale and
// dropped; no wait spins on it. (Windows cannot always tell a closed socket from one that took over
// its number: there the rule has no net under it.)
//
// Add, modify and remove take constant time (AFD: as long as Windows takes to cancel a request,
// which grows with those under way). Memory: at most 64 bytes for each registration that
// there has been at once; with AFD about 150.
//================================================================================================

typedef struct netio_poller netio_poller;

// AUTO: the best this system has: epoll, kqueue, AFD, WSAPoll, poll, select, in this order. AFD is
// the Windows socket driver's own poll. IOURING is a name for later: NETIO_ENOTSUP.
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
// Returns 0; add: NETIO_EEXIST (registered with an interest; without one it is replaced),
// NETIO_ENOSPC (the OS refuses so many), NETIO_ENOMEM, NETIO_EBADF; modify, remove: NETIO_ENOENT
// (not registered); NETIO_EINVAL (flags), NETIO_ENOTSUP (EDGE on select, poll, WSAPoll, AFD).
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

// End the current or next wait. Returns 0. Thread: any, and signal handlers; not past close.
NETIO_API int netio_poller_wake(netio_poller *p);

NETIO_API int netio_poller_backend(const netio_poller *p); // NETIO_BACKEND_*: which one it is
NETIO_API netio_socket
netio_poller_fd(const netio_poller *p); // to nest it: epoll, kqueue; else invalid
NETIO_API size_t netio_poller_count(const netio_poller *p);   // registrations
NETIO_API uint64_t netio_poller_stale(const netio_poller *p); // dropped: closed without remove
NETIO_API const char *netio_backend_name(int backend);        // "epoll"; "" if unknown
NETIO_API bool netio_backend_available(int backend);          // AUTO: true
#endif                                                        // NETIO_NO_POLLER

#ifndef NETIO_NO_FRAME
//================================================================================================
// >>frame                                                                  bytes in, frames out
//
// A netio_framing describes a wire format. A netio_decoder turns bytes, cut anywhere, into frames;
// netio_encode gives what stands before and after a payload. No sockets here. Each format has a
// largest frame; a bad frame is an error as soon as its first wrong byte is there, after all good
// ones were handed out. Memory grows with what arrived, never with what a header claims.
//================================================================================================

// RAW: no framing, bytes as they come. CUSTOM: a format of your own, see netio_format_ops.
// clang-format off
enum { NETIO_FORMAT_RAW, NETIO_FORMAT_LINE, NETIO_FORMAT_DELIMITER, NETIO_FORMAT_FIXED,
       NETIO_FORMAT_LENGTH, NETIO_FORMAT_VARINT, NETIO_FORMAT_NETSTRING, NETIO_FORMAT_CHUNKED,
       NETIO_FORMAT_COBS, NETIO_FORMAT_SLIP, NETIO_FORMAT_WEBSOCKET, NETIO_FORMAT_HTTP_HEAD,
       NETIO_FORMAT_CUSTOM };

// Over the header, with the sum itself as zeros, and the payload.
enum { NETIO_CHECK_NONE, NETIO_CHECK_SUM32, NETIO_CHECK_CRC32, NETIO_CHECK_CRC32C };
// clang-format on

typedef struct netio_frame {
    const uint8_t *data; // payload
    size_t len;
    const uint8_t *header; // LENGTH: the raw header, `data` follows it in memory; to encode: values
    size_t header_len;     // of its free bytes, or NULL. CHUNKED: trailers
    uint64_t offset;       // byte of the stream where the frame began
    unsigned type;         // WEBSOCKET: NETIO_WS_*; CUSTOM: yours; else 0
    bool more, continues;  // WEBSOCKET with `fragments`: not the last one; not the first one
} netio_frame;

// What to send around a payload.
typedef struct netio_envelope {
    size_t head_len, tail_len;
    uint8_t head[264]; // a header is at most 255 bytes
    uint8_t tail[16];
} netio_envelope;

typedef struct netio_format_ops netio_format_ops;

// A wire format. Make one with the functions below, then change fields as the comments say.
typedef struct netio_framing {
    int format; // NETIO_FORMAT_*; 0: no framing
    int adjust; // LENGTH: add to the field to get payload bytes (-header if it counts all); header
                // bytes behind the field are counted by `header` already
    size_t max; // largest payload; 0: 1 MiB. Beyond it: NETIO_EMSGSIZE. RAW: most bytes handed out
                // at once; 0: all
    void *user; // CUSTOM: yours
    const netio_format_ops *ops; // CUSTOM
    unsigned type;               // frame type that netio_conn_send uses; 0: the format's usual one
    uint8_t header;              // LENGTH: bytes before the payload, all fields included
    uint8_t width;               // LENGTH: of the length field: 1, 2, 3, 4 or 8 bytes
    uint8_t offset;              // LENGTH: where the length field starts in the header
    uint8_t check;               // LENGTH: NETIO_CHECK_*, a 32-bit field in the header
    uint8_t check_offset;        // where it is
    uint8_t magic_len;           // LENGTH: bytes of `magic` the header must begin with; else EPROTO
    uint8_t magic[8];
    bool little;    // LENGTH: fields are little-endian
    bool keep;      // LINE, DELIMITER: leave the line end in the payload
    bool crlf;      // LINE: write CRLF (either is read)
    bool skip;      // LINE, DELIMITER, COBS, SLIP: leave out what is over max or malformed, and go
                    // on behind the next delimiter
    bool lax;       // VARINT: take lengths in more bytes than needed, as protobuf does
    bool masked;    // WEBSOCKET: this side is the client
    bool fragments; // WEBSOCKET: hand out fragments as they come, not whole messages
    uint8_t delimiter_len;
    uint8_t delimiter[16];
} netio_framing;

// A format of your own: a constant table of two functions without state of their own.
struct netio_format_ops {
    // Look for one frame at the start of `data` (at least one byte). Fill out->data and out->len
    // with the payload, which lies in `data` (header, type, more if it has them), and return the
    // bytes of the whole frame; out->data NULL: skip these bytes. 0: needs more; setting `*need` to
    // the least bytes of a frame that begins so saves calls. NETIO_EPROTO, NETIO_EMSGSIZE, ... are
    // passed on. Say so at the first wrong byte: that is what makes it the same for every cut.
    ptrdiff_t (*parse)(const netio_framing *framing, const uint8_t *data, size_t len,
                       netio_frame *out, size_t *need);
    // Fill in what stands around frame->data. NULL: this side only reads.
    int (*wrap)(netio_envelope *out, const netio_framing *framing, const netio_frame *frame);
};

#ifndef NETIO_NO_LINE
NETIO_API netio_framing netio_framing_line(size_t max); // to read LF or CRLF alone: delimiter
#endif
#ifndef NETIO_NO_DELIMITER
NETIO_API netio_framing netio_framing_delimiter(const void *delimiter, size_t len, size_t max);
#endif
#ifndef NETIO_NO_FIXED
NETIO_API netio_framing netio_framing_fixed(size_t size);
#endif
#ifndef NETIO_NO_LENGTH
NETIO_API netio_framing netio_framing_length(int width, size_t max); // big-endian, then payload
#endif
#ifndef NETIO_NO_VARINT
NETIO_API netio_framing netio_framing_varint(size_t max); // LEB128, as protobuf
#endif
#ifndef NETIO_NO_NETSTRING
NETIO_API netio_framing netio_framing_netstring(size_t max); // "5:hello,"
#endif
#ifndef NETIO_NO_COBS
NETIO_API netio_framing netio_framing_cobs(size_t max); // ended by 0; empty ones are skipped
#endif
#ifndef NETIO_NO_SLIP
NETIO_API netio_framing netio_framing_slip(size_t max); // RFC 1055; has no empty frames
#endif
NETIO_API netio_framing netio_framing_custom(const netio_format_ops *ops, void *user, size_t max);

// A decoder in memory of yours; all fields private.
typedef struct netio_decoder {
    netio_framing framing;
    ptrdiff_t (*next)(struct netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out);
    const uint8_t *at, *in; // bytes not used up, and what was fed behind them
    size_t left, in_len;
    uint8_t *buf; // [0, kept): a codec's own
    size_t cap, kept, scan, need;
    uint64_t offset, announced, mark, skipped;
    uint32_t state[4];
    int stop, err;
    bool owned, ended, held;
} netio_decoder;

// Start with `buf` for frames that arrive in pieces: borrowed until free. NULL: allocated when
// needed, as much as has arrived and never more than the largest frame takes (SLIP: escaped, twice
// max), freed when empty. COBS and SLIP are decoded there, also whole frames if they differ from
// their payload.
// Returns 0; NETIO_EINVAL (impossible framing), NETIO_ENOTSUP (its codec is not in this build).
NETIO_API int netio_decoder_init(netio_decoder *d, netio_framing framing, void *buf, size_t cap);
NETIO_API void netio_decoder_free(netio_decoder *d); // needed only if buf was NULL

// Feed bytes, then take frames until there are none, then feed again:
//     netio_decoder_feed(&d, data, len);
//     while ((r = netio_decoder_next(&d, &frame)) > 0) use(&frame);
// `data` is borrowed until next() has returned 0 or an error, or until keep(), which copies what is
// left of it. end() says that no more will come: next() then gives an unterminated last line, and
// NETIO_EOF or NETIO_ETRUNCATED.
// Returns 0; feed: NETIO_EBUSY (the last piece is not used up), NETIO_EINVAL (NULL with a length,
// after end), what next() failed with; keep: NETIO_ENOMEM, NETIO_ENOBUFS (your `buf` is too small).
NETIO_API int netio_decoder_feed(netio_decoder *d, const void *data, size_t len);
NETIO_API int netio_decoder_keep(netio_decoder *d);
NETIO_API void netio_decoder_end(netio_decoder *d);

// Returns  1 with a frame (lent until the next call on `d`); 0: needs more; NETIO_ENOMEM, after
//          which it can be called again; errors that stay: NETIO_EPROTO, NETIO_EMSGSIZE
//          (netio_decoder_blame has the size), NETIO_EBADMSG (sum), NETIO_EILSEQ (WEBSOCKET:
//          text), NETIO_ENOBUFS (it does not fit your `buf`); after end NETIO_EOF and
//          NETIO_ETRUNCATED
NETIO_API int netio_decoder_next(netio_decoder *d, netio_frame *out);

// Go on in another format; bytes not yet handed out are read under it. Returns as init, or what
// next() failed with; then nothing has changed.
NETIO_API int netio_decoder_set_framing(netio_decoder *d, netio_framing framing);

// Bytes fed but not handed out, in at most two pieces: behind the last frame, from the bad one on.
// Returns how many pieces. They live as a frame does. (What a WEBSOCKET message already gathered
// is not among them.)
NETIO_API size_t netio_decoder_rest(const netio_decoder *d, netio_buf out[2]);

// After an error: where the bad frame begins, and the payload size it announced, which is max + 1
// where formats do not say; 0: not known. Either may be NULL.
NETIO_API void netio_decoder_blame(const netio_decoder *d, uint64_t *offset, uint64_t *announced);
NETIO_API uint64_t netio_decoder_skipped(const netio_decoder *d); // frames left out by `skip`

// Returns 0; NETIO_EMSGSIZE (over max, not the FIXED size, or does not fit the length field);
// NETIO_EINVAL (impossible framing; header_len is not framing->header; LINE, DELIMITER: the payload
// contains a delimiter); NETIO_ENOTSUP where the payload itself changes (COBS, SLIP, masked
// WebSocket): use encode_into; or where the codec is not in this build.
NETIO_API int netio_encode(netio_envelope *out, const netio_framing *framing,
                           const netio_frame *frame);

// The whole frame as bytes. Returns their number; NETIO_ENOSPC: netio_encode_bound is enough.
NETIO_API ptrdiff_t netio_encode_into(void *buf, size_t cap, const netio_framing *framing,
                                      const netio_frame *frame);
NETIO_API size_t netio_encode_bound(const netio_framing *framing, size_t len);

// Integers and bytes of headers of your own: never past the end, errors stick, so test `err` once.
typedef struct netio_cursor {
    const uint8_t *data; // to get from
    uint8_t *room;       // to put into; the same bytes
    size_t len, off;
    int err;     // 0; NETIO_ETRUNCATED after a get or put past the end, which moves nothing;
                 // NETIO_EINVAL (width), NETIO_EMSGSIZE (put: the value does not fit)
    bool little; // byte order; false: network order
} netio_cursor;

NETIO_API netio_cursor netio_cursor_get(const void *data, size_t len); // for the get calls
NETIO_API netio_cursor netio_cursor_put(void *room, size_t cap);       // for the put calls

NETIO_API uint64_t netio_get_uint(netio_cursor *cur, int width); // 1..8 bytes; 0 on error
NETIO_API void netio_put_uint(netio_cursor *cur, int width, uint64_t value);
NETIO_API const void *netio_get_bytes(netio_cursor *cur, size_t len); // inside data; NULL: error
NETIO_API void netio_put_bytes(netio_cursor *cur, const void *data, size_t len);

// Sums over pieces: pass the previous result, 0 to begin; NULL counts as no bytes. sum32 adds
// bytes; crc32 is that of zlib and Ethernet; crc32c that of SCTP (RFC 9260 appendix A).
NETIO_API uint32_t netio_sum32(uint32_t sum, const void *data, size_t len);
NETIO_API uint32_t netio_crc32(uint32_t crc, const void *data, size_t len);
NETIO_API uint32_t netio_crc32c(uint32_t crc, const void *data, size_t len);

// UTF-8 across pieces: *state is 0 at first and 0 again where a character is complete.
// Returns 0; NETIO_EILSEQ with *bad (may be NULL) the position of the first byte that cannot be;
// *state then says whether a character had begun (not 0) or not.
// See     RFC 3629
NETIO_API int netio_utf8_check(uint32_t *state, const void *data, size_t len, size_t *bad);
#endif // NETIO_NO_FRAME

#if !defined(NETIO_NO_STREAM) && !defined(NETIO_NO_FRAME)
//================================================================================================
// >>stream                                                 blocking streams of any kind, framed
//
// One small value over a socket, TLS (netio_tls.h), or anything with a table of your own. Frames
// are received into the decoder's buffer, many at once, and handed out from there.
//================================================================================================

// What NULL stands for is NETIO_ENOTSUP. All as their namesakes in >>socket; recv and sendv never
// return 0: there is something, an end, or an error.
typedef struct netio_stream_ops {
    ptrdiff_t (*recv)(void *self, void *buf, size_t cap, int timeout_ms);
    ptrdiff_t (*sendv)(void *self, const netio_buf *bufs, size_t count, int timeout_ms);
    int (*shutdown)(void *self, int timeout_ms); // end of what this side sends
    int (*close)(void *self);
} netio_stream_ops;

typedef struct netio_stream {
    const netio_stream_ops *ops; // NULL: closed, NETIO_EBADF
    void *self;
    netio_socket socket; // NETIO_INVALID_SOCKET if there is none
} netio_stream;

NETIO_API netio_stream netio_stream_from_socket(netio_socket s); // close closes the socket

// As their namesakes in >>socket.
NETIO_API ptrdiff_t netio_stream_recv(netio_stream *st, void *buf, size_t cap, int timeout_ms);
NETIO_API int netio_stream_recv_exact(netio_stream *st, void *buf, size_t len, size_t *done,
                                      int timeout_ms);
NETIO_API int netio_stream_send_all(netio_stream *st, const void *data, size_t len, size_t *done,
                                    int timeout_ms);
NETIO_API int netio_stream_shutdown(netio_stream *st, int timeout_ms);
NETIO_API int netio_stream_close(netio_stream *st);

// Next frame, receiving as needed, one large receive at a time: read lines, records, heads; with
// the framing RAW (a zero netio_framing) whatever is there, at most framing.max, to drain or copy.
// Change the framing in between with netio_decoder_set_framing; what was received stays in `d`,
// see netio_decoder_rest to look at it. Without a buffer of yours `d` reads 16 KiB ahead.
// Returns 0; NETIO_EOF between frames, NETIO_ETRUNCATED inside one; as recv and decoder_next. After
// NETIO_EAGAIN, NETIO_ETIMEDOUT and NETIO_ENOMEM it can be called again.
NETIO_API int netio_stream_read_frame(netio_stream *st, netio_decoder *d, netio_frame *out,
                                      int timeout_ms);

// Head, payload and tail in one send. Returns 0; as netio_encode, as send_all: after one of those
// the frame may be cut, which only closing mends. (COBS, SLIP and masked WebSocket: on the heap,
// NETIO_ENOMEM.)
NETIO_API int netio_stream_write_frame(netio_stream *st, const netio_framing *framing,
                                       const netio_frame *frame, int timeout_ms);

// Gathers small writes. Set the first four fields; hold_ms 0: only flush or a full buffer sends.
// What is larger than the buffer goes straight through.
typedef struct netio_writer {
    netio_stream *stream; // borrowed, as `buf`
    uint8_t *buf;
    size_t cap;
    int hold_ms; // write flushes what has waited this long; see netio_writer_due
    size_t len;  // bytes that wait
    size_t done; // of the last write: how many of its bytes were taken
    uint64_t since_ms;
} netio_writer;

// Returns 0; as send_all. After an error, bytes that were taken but not sent still wait, in order;
// those behind `done` are yours: flush or write again goes on where it stopped.
NETIO_API int netio_writer_write(netio_writer *w, const void *data, size_t len, int timeout_ms);
NETIO_API int netio_writer_flush(netio_writer *w, int timeout_ms);

// Milliseconds until hold_ms is over, for a timer or a wait after which to flush; -1: nothing
// waits.
NETIO_API int netio_writer_due(const netio_writer *w);
#endif // NETIO_NO_STREAM

//================================================================================================
// >>queue                                                     bytes in, bytes out, bounded
//
// Putting and dropping take constant time on average, whatever the sizes.
//================================================================================================

typedef struct netio_queue netio_queue;

// At most `max` bytes; memory grows with what is in it, and never past that.
// Returns 0; NETIO_ENOMEM.
NETIO_API int netio_queue_create(netio_queue **out, size_t max);
NETIO_API void netio_queue_destroy(netio_queue *q); // NULL: nothing

// Copies all of it, or nothing. Returns 0; NETIO_ENOBUFS (over max), NETIO_ENOMEM.
NETIO_API int netio_queue_put(netio_queue *q, const void *data, size_t len);
NETIO_API netio_buf netio_queue_front(const netio_queue *q); // first piece, lent; len 0: empty
NETIO_API void netio_queue_drop(netio_queue *q, size_t len); // from the front
NETIO_API size_t netio_queue_len(const netio_queue *q);

#if !defined(NETIO_NO_HTTP) && !defined(NETIO_NO_FRAME)
//================================================================================================
// >>http                                                     HTTP/1.x heads, WebSocket upgrade
//
// Enough to serve a health check, fetch a file, or become a WebSocket; not an HTTP library. Strict:
// what two parsers could read in two ways (request smuggling) is NETIO_EPROTO, so a head that was
// accepted may be passed on as it is. No heap, no state; any thread.
// A stream of heads is cut by netio_framing_http_head, bodies by netio_framing_chunked.
//================================================================================================

#define NETIO_HTTP_FIELDS 64 // fields kept of one head; more are NETIO_EMSGSIZE

// All pieces point into the parsed bytes.
typedef struct netio_http_head {
    int status;             // response: 100..599; request: 0
    int minor;              // HTTP/1.minor
    netio_buf method;       // request: "GET"; case matters
    netio_buf target;       // request: "/path?query", "http://host/path", "host:port" or "*"
    netio_buf reason;       // response: may be empty
    int64_t content_length; // what the field says; -1: not given
    bool chunked;           // Transfer-Encoding: chunked; then content_length is -1
    bool keep_alive;        // the connection may stay open after this message
    bool upgrade_websocket; // asks for, or grants, a WebSocket
    size_t field_count;
    netio_buf names[NETIO_HTTP_FIELDS];
    netio_buf values[NETIO_HTTP_FIELDS]; // without white space around them
} netio_http_head;

// A format of >>frame: a frame is a head with its empty line, at most `max` bytes (0: 4 KiB).
// Control characters and line ends other than CRLF are NETIO_EPROTO at once, the rest is for
// netio_http_parse. Empty lines before it are skipped. To send: the head as it is.
NETIO_API netio_framing netio_framing_http_head(size_t max);

// Read a head: start line and fields, each ended by CRLF, with or without the empty line.
//
// Returns  0; NETIO_EPROTO (whatever the grammar does not allow: a line end other than CRLF, white
//          space before a colon, folded lines, control characters; HTTP other than 1.x; no Host or
//          two in a request; Content-Length twice, or with Transfer-Encoding; a transfer coding
//          other than "chunked", or any in HTTP/1.0; bytes behind the empty line), NETIO_EMSGSIZE
//          (more than NETIO_HTTP_FIELDS fields). On error `*out` is not to be used.
// See      RFC 9112 sections 2 to 6, RFC 9110 sections 5 and 7
NETIO_API int netio_http_parse(netio_http_head *out, const void *data, size_t len);

// Value of the first field of that name, case aside; data NULL: none.
NETIO_API netio_buf netio_http_field(const netio_http_head *head, const char *name);

// Whether a field that is a list ("Connection: keep-alive, Upgrade"), perhaps in several lines, has
// this member, case aside.
NETIO_API bool netio_http_field_has(const netio_http_head *head, const char *name,
                                    const char *member);

// Add a field to a head of `len` bytes that was written into `buf`, before its empty line.
// Returns the new length; NETIO_ENOSPC; NETIO_EINVAL (no head, or a name or value that would break
// it: a line end in a value never gets into a head). On error the head is as it was.
NETIO_API ptrdiff_t netio_http_add(char *buf, size_t cap, size_t len, const char *name,
                                   const char *value);

NETIO_API bool netio_buf_equal(netio_buf a, const char *text); // byte for byte

// SHA-1 for the WebSocket handshake; it protects nothing (FIPS 180-4, RFC 3174).
NETIO_API void netio_sha1(uint8_t out[20], const void *data, size_t len);

// Base64 with padding, RFC 4648 section 4. encode terminates with a NUL. decode is strict: full
// padding, no white space, no stray bits.
// Returns the length without NUL; NETIO_ENOSPC (nothing is written); decode: NETIO_EPROTO.
NETIO_API ptrdiff_t netio_base64_encode(char *buf, size_t cap, const void *data, size_t len);
NETIO_API ptrdiff_t netio_base64_decode(void *buf, size_t cap, const char *text, size_t len);
#endif // NETIO_NO_HTTP

#if !defined(NETIO_NO_CHUNKED) && !defined(NETIO_NO_FRAME)
// Bodies with "Transfer-Encoding: chunked". A frame is a chunk of 1 to `max` bytes (0: 1 MiB);
// extensions are checked and left out. The end is a frame of no bytes, its `header` the trailers:
// lines "Name: value", each with its CRLF, at most 8 KiB, checked to be fields and no more. Behind
// it another body may come: set the framing of what does. To send the end: data NULL, perhaps with
// trailers (at most 258 bytes); an empty piece, data not NULL, writes nothing.
// See RFC 9112 section 7.1
NETIO_API netio_framing netio_framing_chunked(size_t max);
#endif // NETIO_NO_CHUNKED

#if !defined(NETIO_NO_WEBSOCKET) && !defined(NETIO_NO_FRAME)
//================================================================================================
// >>websocket                                                     RFC 6455: handshake and closing
//
// Errors of the decoder: NETIO_EPROTO, NETIO_EILSEQ (text, at its first bad byte), NETIO_EMSGSIZE
// (over max, before it arrives); see netio_ws_close_code_for. Control frames are handed out between
// the fragments of a message. A client's frames are masked with random keys, so it encodes with
// netio_encode_into; 4 bytes in frame.header are taken for the key, if you have random ones.
// Extensions are never negotiated: permessage-deflate is not offered, an offer of it is left
// unanswered, an answer with it is refused.
//================================================================================================

// `max`: largest message, with `fragments` largest fragment; 0: 1 MiB. The type of a frame is one
// of these; 0 when sending: framing.type, or binary. Text that arrives is checked to be UTF-8, text
// to send is not. A connection answers pings and closes by itself and still shows them in on_frame.
// clang-format off
enum { NETIO_WS_TEXT = 1, NETIO_WS_BINARY = 2, NETIO_WS_CLOSE = 8, NETIO_WS_PING = 9,
       NETIO_WS_PONG = 10 };
// clang-format on

NETIO_API netio_framing netio_framing_websocket(bool client, size_t max);

#ifndef NETIO_NO_HTTP
// The opening handshake. A client writes the request into `buf` and keeps `key`, a fresh random one
// with its NUL; check judges the server's answer against it. Both ends may put more fields into
// what was written (Origin, Authorization, Sec-WebSocket-Protocol) with netio_http_add.
//
// Returns  the length written; NETIO_ENOSPC; NETIO_EINVAL (host or target would break the head, or
//          the target does not begin with '/'); NETIO_EIO (the OS has no random numbers).
// See      RFC 6455 section 4.1
NETIO_API ptrdiff_t netio_ws_request(char *buf, size_t cap, const char *host, const char *target,
                                     char key[25]);

// A server writes the 101, or a refusal, and its length. Check Origin first if browsers may come.
// Returns 0; NETIO_EPROTO after writing a refusal: send it and close (400: no key, a body; 426: not
// an upgrade to WebSocket version 13); NETIO_ENOSPC with *len 0 (512 bytes are enough).
NETIO_API int netio_ws_answer(char *buf, size_t cap, size_t *len, const netio_http_head *request);

// Returns 0; NETIO_ECONNREFUSED (the status is not 101: look at it); NETIO_EPROTO (not the answer
// to this key; an extension or a subprotocol that was not asked for).
NETIO_API int netio_ws_check(const netio_http_head *response, const char key[25]);

// Subprotocols. `mine` is an array, best first, with NULL at its end: {"chat.v2", "chat", NULL}.
// choose gives the first of mine that the request offers, to be answered with netio_http_add; NULL:
// none. check_protocol is check for a client that offered `mine`, and says which one of them the
// server chose; NULL: none.
NETIO_API const char *netio_ws_choose(const netio_http_head *request, const char *const *mine);
NETIO_API int netio_ws_check_protocol(const netio_http_head *response, const char key[25],
                                      const char *const *mine, const char **chosen);
#endif // NETIO_NO_HTTP

// The payload of a close frame: 2 bytes and the reason, UTF-8, at most 123 bytes; code 0: empty.
// Returns its length; NETIO_EINVAL (a code that must not be sent, RFC 6455 section 7.4),
// NETIO_EILSEQ or NETIO_EMSGSIZE (the reason), NETIO_ENOSPC.
NETIO_API ptrdiff_t netio_ws_close_write(void *buf, size_t cap, int code, const char *reason);

// The code in a close frame's payload, as the decoder handed it out; 1005: it has none.
NETIO_API int netio_ws_close_code(const void *payload, size_t len);

// What to tell the peer about a decoder's error before closing: NETIO_EPROTO 1002, NETIO_EILSEQ
// 1007, NETIO_EMSGSIZE 1009, any other 1011; 0: 1000, the usual end.
NETIO_API int netio_ws_close_code_for(int err);
#endif // NETIO_NO_WEBSOCKET

#if !defined(NETIO_NO_PROXY) && !defined(NETIO_NO_FRAME)
//================================================================================================
// >>proxy                                                         the PROXY protocol, versions 1, 2
//
// The header with which a load balancer begins each connection to tell who the client is. The
// receiver must know that one comes, and from whom: guessing lets anybody choose an address.
// See haproxy.org, proxy-protocol.txt
//================================================================================================

#define NETIO_PROXY_MAX 4096 // longest header that is taken

// Types of what may follow the addresses in version 2.
// clang-format off
enum { NETIO_PROXY_ALPN = 1, NETIO_PROXY_AUTHORITY = 2, NETIO_PROXY_CRC32C = 3,
       NETIO_PROXY_NOOP = 4, NETIO_PROXY_UNIQUE_ID = 5, NETIO_PROXY_SSL = 0x20,
       NETIO_PROXY_SSL_VERSION = 0x21, NETIO_PROXY_SSL_CN = 0x22, NETIO_PROXY_SSL_CIPHER = 0x23,
       NETIO_PROXY_SSL_SIG_ALG = 0x24, NETIO_PROXY_SSL_KEY_ALG = 0x25, NETIO_PROXY_NETNS = 0x30 };
// clang-format on

// Read the header at the front of `data`. Call again with more bytes, all from the first, while it
// gives 0. Zero addresses: the proxy speaks for itself, or does not say; use the connection's own.
//
// Returns  the header's length; 0: needs more; NETIO_EPROTO (as early as it shows), NETIO_EBADMSG
//          (its CRC-32C), NETIO_EMSGSIZE (longer than NETIO_PROXY_MAX). On error, and while it
//          needs more, the addresses are untouched.
NETIO_API ptrdiff_t netio_proxy_parse(const void *data, size_t len, netio_addr *src,
                                      netio_addr *dst);

// What follows the addresses of a header that parse took, `len` the length it gave:
//     netio_buf rest = netio_proxy_tlvs(data, len), value;
//     while (netio_proxy_next_tlv(&rest, &type, &value) > 0) ...
// The value of NETIO_PROXY_SSL is a byte of flags, 4 bytes of verdict (0: verified), then more of
// the same, for a `rest` of your own. Returns 1; 0: no more; NETIO_EPROTO.
NETIO_API netio_buf netio_proxy_tlvs(const void *header, size_t len);
NETIO_API int netio_proxy_next_tlv(netio_buf *rest, int *type, netio_buf *value);

// Write a header; both addresses NULL: "the proxy speaks for itself" (LOCAL, UNKNOWN). Of two
// families IPv4 is written as IPv6; in version 1 others than IP are UNKNOWN. add_tlv appends to one
// of version 2; NETIO_PROXY_CRC32C, without a value, comes last.
// Returns the length (so far); NETIO_ENOSPC: 232 bytes are enough without more; NETIO_EINVAL
// (version, one address without the other, an IP address with a path; add_tlv: not version 2, a
// type above 255); NETIO_EMSGSIZE (above NETIO_PROXY_MAX).
NETIO_API ptrdiff_t netio_proxy_write(void *buf, size_t cap, int version, const netio_addr *src,
                                      const netio_addr *dst);
NETIO_API ptrdiff_t netio_proxy_add_tlv(void *buf, size_t cap, size_t len, int type,
                                        const void *value, size_t value_len);
#endif // NETIO_NO_PROXY

#if !defined(NETIO_NO_SOCKS) && !defined(NETIO_NO_FRAME)
//================================================================================================
// >>tunnel                                                  through a SOCKS5 or HTTP CONNECT proxy
//
// The client's side of asking a proxy for a connection, without a socket: connect to t.address,
// send what output gives, hand in what arrives, until input says 1. The proxy looks names up.
//================================================================================================

typedef struct netio_tunnel {
    char address[272]; // "host:port" of the proxy: connect there
    int step, err;     // the rest is private
    bool user;
    uint32_t scan;
    size_t out_len[3], out_at, out_end, in_len;
    uint8_t out[1536], in[4096];
} netio_tunnel;

// `proxy` is "socks5://host:port" or "http://host:port", the latter for HTTP CONNECT; with
// "user:password@" before the host if it wants them (%XX for what is special in a URL). `target` is
// "host:port" by number, name or literal. Copies both.
//
// Returns  0; NETIO_EINVAL (either is none of that; a colon in a user for HTTP); NETIO_ENOTSUP
//          (other schemes; http with NETIO_NO_HTTP); NETIO_ENAMETOOLONG (name over 253, user or
//          password over 255 bytes).
// See      RFC 1928, RFC 1929; RFC 9110 section 9.3.6
NETIO_API int netio_tunnel_init(netio_tunnel *t, const char *proxy, const char *target);

// What is to be sent now, each byte once: ask after init and after each input. Lent until the next
// call on `t`; len 0: nothing.
NETIO_API netio_buf netio_tunnel_output(netio_tunnel *t);

// What the proxy sent. `*used` says how many bytes were the proxy's; those behind them are already
// the target's.
//
// Returns  1: the tunnel is open; 0: not yet; NETIO_EACCES (the proxy wants a user, or does not
//          like this one, or its rules forbid it), NETIO_ECONNREFUSED, NETIO_EHOSTUNREACH,
//          NETIO_ENETUNREACH, NETIO_ETIMEDOUT (the target, as the proxy says); NETIO_ENOTSUP,
//          NETIO_EAFNOSUPPORT (the proxy cannot); NETIO_EIO (it gives no reason); NETIO_EPROTO,
//          NETIO_EMSGSIZE (no proxy of this kind). An error stays.
NETIO_API int netio_tunnel_input(netio_tunnel *t, const void *data, size_t len, size_t *used);
#endif // NETIO_NO_SOCKS

#ifndef NETIO_NO_LOOP
//================================================================================================
// >>loop                                                  timers, tasks, signals, watches, lookups
//
// A loop belongs to the thread that runs it. Handles are small values that go stale when what they
// name has ended: every call on a stale or zero handle is NETIO_ESTALE or nothing. They stay safe
// until the loop is destroyed. Where a call makes one, NULL means that it is not wanted.
// Callbacks run from netio_loop_run, _run_once, _destroy and netio_network_run, and from nowhere
// else; any call is legal in them, except running or destroying the same loop (NETIO_EBUSY).
//================================================================================================

typedef struct netio_loop netio_loop;
typedef struct netio_network netio_network;
typedef void (*netio_task)(void *user);

// clang-format off
typedef struct netio_timer    { void *ptr; uint64_t gen; } netio_timer;
typedef struct netio_watch    { void *ptr; uint64_t gen; } netio_watch;
typedef struct netio_signal   { void *ptr; uint64_t gen; } netio_signal;
typedef struct netio_lookup   { void *ptr; uint64_t gen; } netio_lookup;
typedef struct netio_conn     { void *ptr; uint64_t gen; } netio_conn;
typedef struct netio_listener { void *ptr; uint64_t gen; } netio_listener;
typedef struct netio_udp      { void *ptr; uint64_t gen; } netio_udp;
// clang-format on

enum { NETIO_LOG_ERROR = 1, NETIO_LOG_WARN, NETIO_LOG_INFO, NETIO_LOG_DEBUG };

typedef struct netio_loop_opts {
    int backend;                    // NETIO_BACKEND_*; 0: the best this system has
    int slow_ms;                    // NETIO_DEBUG: log turns that take longer; 0: 100
    size_t recv_buffer;             // bytes, one for the whole loop; 0: 256 KiB, at least 4 KiB
    size_t turn_budget;             // bytes one connection may receive, and send, a turn; 0: 1 MiB
    size_t lookups_max;             // name lookups under way and waiting; 0: 1024
    size_t resolver_threads;        // at most, one lookup each; 0: 4
    uint64_t (*now_us)(void *user); // clock, for tests; NULL: netio_now_us. Steps back are ignored
    void (*log)(void *user, int level, const char *line); // NULL: silent
    // Runs after every operation on a connection: NETIO_OP_*, its bytes or error. It must not call
    // netio on the same connection. NULL: none, at no cost.
    void (*on_op)(void *user, int op, netio_conn c, ptrdiff_t result);
    void *user;             // for now_us, log and on_op
    netio_network *network; // connections run over this network in memory; NULL: over the OS's
    const char *host;       // with network: this loop's own address; NULL: "127.0.0.1"
} netio_loop_opts;

// Returns 0; NETIO_ENOTSUP (no such backend), NETIO_EMFILE, NETIO_ENOMEM, NETIO_EINVAL (host).
NETIO_API int netio_loop_create(netio_loop **out, const netio_loop_opts *opts);

// Ends everything the loop owns (on_close runs, NETIO_ECANCELED), then frees it; its handles die
// with it. Nothing new can be made meanwhile (NETIO_ECANCELED). From one of its callbacks, or while
// it runs: NETIO_EBUSY.
NETIO_API int netio_loop_destroy(netio_loop *loop);

// Run until stop, or until nothing is left that could happen. Returns 0; NETIO_EBUSY (it runs
// already); an OS failure.
NETIO_API int netio_loop_run(netio_loop *loop);

// One turn: wait up to timeout_ms, run what is due. Returns callbacks run; 0: nothing happened.
NETIO_API int netio_loop_run_once(netio_loop *loop, int timeout_ms);

// End run after this turn. Before run: that run ends at once. Thread: any, and signal handlers.
NETIO_API void netio_loop_stop(netio_loop *loop);

// Graceful stop: listeners close; each connection gets on_stop, or is closed if it has none; UDP
// endpoints close. When the last connection is gone, or after timeout_ms (the rest is aborted), run
// returns; timers and watches do not hold it up. -1: no limit. Again: stop now.
NETIO_API void netio_loop_finish(netio_loop *loop, int timeout_ms);

// Run task(user) on the loop's thread, in order. With len > 0 the task gets a copy of the `len`
// bytes at `user`, freed after it. `drop` (may be NULL) runs in its place if the loop is destroyed
// first. A task posted from a task runs in the next turn.
// Thread: any; not after destroy. Returns 0; NETIO_ENOMEM.
NETIO_API int netio_loop_post(netio_loop *loop, netio_task task, netio_task drop, void *user,
                              size_t len);

// Once after delay_ms (below 0: as 0, in the next turn), or every period_ms (1 and more), phase
// kept, missed ticks skipped. Those due run in order of time, equal ones in order of start.
// Returns 0; NETIO_ENOMEM, NETIO_EINVAL. reset: due then instead, also of a running period;
// NETIO_ESTALE once it has run.
NETIO_API int netio_timer_once(netio_timer *out, netio_loop *loop, int delay_ms, netio_task task,
                               void *user);
NETIO_API int netio_timer_every(netio_timer *out, netio_loop *loop, int period_ms, netio_task task,
                                void *user);
NETIO_API int netio_timer_reset(netio_timer t, int delay_ms);
NETIO_API void netio_timer_stop(netio_timer t);

// Readiness of a socket or descriptor that stays yours; stop before closing it. Level-triggered
// NETIO_EV_READ, NETIO_EV_WRITE. Returns 0; as netio_poller_add; NETIO_ENOTSUP (network in memory).
NETIO_API int netio_watch_start(netio_watch *out, netio_loop *loop, netio_socket s, unsigned events,
                                void (*ready)(void *user, unsigned events), void *user);
NETIO_API int netio_watch_modify(netio_watch w, unsigned events);
NETIO_API void netio_watch_stop(netio_watch w);

// A signal as a task: SIGINT, SIGTERM, SIGHUP...; on Windows SIGINT (Ctrl-C), SIGBREAK, and SIGTERM
// (console closed, log off, shutdown: the program has some 5 s). The former disposition comes back
// on stop. Several that come before the task runs may run it once.
// Returns 0; NETIO_EEXIST (started already, here or by another loop), NETIO_EINVAL (no signal that
// can be caught).
NETIO_API int netio_signal_start(netio_signal *out, netio_loop *loop, int signum, netio_task task,
                                 void *user);
NETIO_API void netio_signal_stop(netio_signal s);

// netio_resolve without waiting: `done` runs once, on the loop, never before this returns; `addrs`
// is lent. timeout_ms -1: no limit; else it ends with NETIO_ETIMEDOUT on time, whatever the OS
// does.
// Returns 0; NETIO_EBUSY (lookups_max), NETIO_ENOMEM; NETIO_EINVAL, NETIO_ENOENT (text);
// NETIO_ENOTSUP (a name, with NETIO_NO_THREADS). After cancel `done` does not run.
NETIO_API int netio_lookup_start(netio_lookup *out, netio_loop *loop, const char *host_port,
                                 const netio_resolve_opts *opts, int timeout_ms,
                                 void (*done)(void *user, int err, const netio_addr *addrs,
                                              size_t count),
                                 void *user);
NETIO_API void netio_lookup_cancel(netio_lookup q);

// For another event loop to drive this one: when poll_fd is readable or next_timeout is over, call
// run_once(loop, 0). poll_fd is NETIO_INVALID_SOCKET where the backend has none (only epoll and
// kqueue do).
NETIO_API netio_socket netio_loop_poll_fd(const netio_loop *loop);
NETIO_API int netio_loop_next_timeout(const netio_loop *loop); // ms; -1: nothing is due

NETIO_API uint64_t netio_loop_now_ms(const netio_loop *loop); // read once a turn

// In the child of a fork: frees the memory and closes this process's copies of the descriptors,
// without a callback and without a word to the network. The parent's loop lives on.
NETIO_API void netio_loop_destroy_after_fork(netio_loop *loop);

typedef struct netio_stats {
    uint64_t bytes_in, bytes_out, reads, writes; // system calls that moved bytes, or datagrams
    uint64_t opened, closed, accepted, refused;  // connections; loop and listener only
    uint64_t timeouts, resets, other_errors;     // how connections ended; loop and listener only
    uint64_t protocol_errors, limit_errors;      // likewise: malformed, or too large
    uint64_t drops;                              // datagrams not queued, or cut off
    uint64_t active;                             // open and closing connections now
    uint64_t turns;                              // loop only
    uint64_t slow;                               // loop only, NETIO_DEBUG: turns above slow_ms
    uint64_t opened_ms;                          // when, on the loop's clock
    uint64_t active_ms;                          // last byte in or out
    uint64_t frames_in, frames_out;              // connections, with framing
} netio_stats;

// Sums over the loop's life, as of its last turn. Thread: any.
NETIO_API void netio_loop_stats(netio_loop *loop, netio_stats *out);

//================================================================================================
// >>filter                                                       between the socket and the handler
//
// A filter changes what passes: TLS, compression, tracing. Its calls to netio always take all bytes
// and never say "would block": how much may be in flight is decided before the filter is asked. So
// a filter never keeps a partial write. A negative return ends the connection with that error.
// From the wire: the filter added last, ..., the one added first, the handler.
//================================================================================================

typedef struct netio_filter_io netio_filter_io; // one filter's place in one connection

// Each call may be NULL: bytes then pass as they are, ends pass on, the filter is ready at once.
typedef struct netio_filter_ops {
    const char *name;
    void (*ref)(void *arg); // keep `arg` alive: a listener or connection holds it
    void (*unref)(void *arg);
    int (*open)(netio_filter_io *io, void *arg);                        // may emit: first flight
    int (*received)(netio_filter_io *io, const void *data, size_t len); // from the wire, lent
    int (*ended)(netio_filter_io *io);                                  // the wire's end of stream
    int (*written)(netio_filter_io *io, const netio_buf *bufs, size_t count); // from the handler
    int (*shutdown)(netio_filter_io *io);                                     // it sends no more
    int (*timer)(netio_filter_io *io);                      // after netio_filter_timer
    void (*explain)(netio_filter_io *io, netio_error *out); // fill lib_code and text
    void (*close)(netio_filter_io *io);                     // free self; emit no more
    bool from_clean; // refuse to start while received bytes wait unread (STARTTLS injection)
} netio_filter_ops;

// What to put on a connection: the table and its argument. All zero is none.
typedef struct netio_filter {
    const netio_filter_ops *ops;
    void *arg;
} netio_filter;

// Towards the wire, and towards the handler: bytes, and the peer's clean end of stream. deliver and
// deliver_end are for `received`, `ended` and `timer` only; while the handler does not read, netio
// keeps what is delivered, at most four receive buffers (NETIO_ENOBUFS).
// Returns 0; an error, to be returned from the filter's call: the connection has ended, or will.
NETIO_API int netio_filter_emit(netio_filter_io *io, const void *data, size_t len);
NETIO_API int netio_filter_deliver(netio_filter_io *io, const void *data, size_t len);
NETIO_API int netio_filter_deliver_end(netio_filter_io *io);
NETIO_API int netio_filter_ready(netio_filter_io *io); // handshake done: on_open, writes flow
NETIO_API void netio_filter_timer(netio_filter_io *io, int delay_ms); // call ops->timer; -1: do not
NETIO_API netio_conn netio_filter_conn(const netio_filter_io *io);
NETIO_API bool netio_filter_dialed(const netio_filter_io *io); // this side dialed: the client
NETIO_API void *netio_filter_self(const netio_filter_io *io);
NETIO_API void netio_filter_set_self(netio_filter_io *io, void *self);

//================================================================================================
// >>conn                                                      connections, listeners, dialing
//
// What is written in one turn leaves in one send at its end. A write is taken whole or refused
// whole: 0 means that netio holds it, and on_close says if it could not be sent after all. The
// queue is bounded (an empty one takes any single write), and while it is above its high mark the
// connection is not read, so answering each request never overflows it. Received bytes are lent, in
// place. on_close runs exactly once for each connection that was handed out, last, and says why.
//================================================================================================

// Callbacks of a connection, each optional; usually one static const per protocol. Any call is
// legal in each of them, also netio_conn_close(c) and replacing the handler.
typedef struct netio_handler {
    // Ready for bytes, once: connected or accepted, filters' handshakes done.
    void (*on_open)(netio_conn c);
    // A filter that was added later (STARTTLS) is ready.
    void (*on_secure)(netio_conn c);
    // Bytes, at least one, in pieces of any size. Lent; all are taken when it returns, but for
    // those that netio_conn_unread keeps. At the peer's end those come once more, and are dropped
    // if they are kept again (not while it is paused). Absent: bytes are read and dropped.
    void (*on_data)(netio_conn c, const void *data, size_t len);
    // The write queue fell to the low mark after having been above the high one, or full.
    void (*on_drain)(netio_conn c);
    // The peer sends no more; writing still works, and after netio_conn_shutdown the connection
    // ends by itself. Absent: it is closed, queue first. (While nothing is written a reset that
    // follows goes unnoticed: set an idle timeout.)
    void (*on_eof)(netio_conn c);
    // NETIO_TIMEOUT_IDLE or _WRITE ran out; if c is still open after it, the time starts again.
    // Absent: aborted with NETIO_ETIMEDOUT. The other timeouts end in on_close.
    void (*on_timeout)(netio_conn c, int which);
    // netio_loop_finish was called: finish what is under way, then close. Absent: closed.
    void (*on_stop)(netio_conn c);
    // Over: 0 for a clean end, else why, and netio_conn_error(c) has the whole story. c and its
    // user pointer can still be read, not written to.
    void (*on_close)(netio_conn c, int err);
    // With framing: whole frames, lent, in place of on_data. Frames behind one in whose callback
    // the connection was paused, or its queue rose above the high mark, come when that is over.
    void (*on_frame)(netio_conn c, const netio_frame *frame);
    // A frame breaks the rules or was cut off: the last word, such as HTTP's 400. What is written
    // here goes out, then the connection closes. `err` is the decoder's; frame->offset is where the
    // frame begins, frame->data what is there of its beginning, lent. Absent: closed without a word
    // (but a WebSocket says why by itself).
    void (*on_bad_frame)(netio_conn c, const netio_frame *frame, int err);
} netio_handler;

enum {
    NETIO_TIMEOUT_IDLE = 1,  // nothing received or sent
    NETIO_TIMEOUT_WRITE,     // bytes queued and the peer takes none
    NETIO_TIMEOUT_CONNECT,   // the whole dial: names, addresses, handshake
    NETIO_TIMEOUT_HANDSHAKE, // an accepted or adopted connection's filters
    NETIO_TIMEOUT_CLOSE      // the peer's FIN after close
};

typedef struct netio_conn_opts {
    void *user;           // first user pointer
    netio_filter filter;  // first filter, netio_tls_filter(ctx) for TLS; zero: none
    int idle_timeout_ms;  // 0: never
    int write_timeout_ms; // the OS takes no byte, and the peer none of those that the OS holds
                          // (where that can be asked); 0: 30 s, -1: never; closing: at most 10 s
    int handshake_timeout_ms; // 0: 10 s
    int close_timeout_ms;     // wait for the peer's FIN after close; 0: 2 s
    size_t close_drain_max;   // bytes discarded meanwhile; 0: 1 MiB
    size_t write_queue_max;   // bytes queued before NETIO_ENOBUFS; 0: 1 MiB. Files do not count
    size_t high_mark;         // netio_conn_congested from here; 0: 64 KiB
    size_t low_mark;          // on_drain from here; 0: a quarter of high_mark
    bool read_always;         // read on while its own queue is above high_mark; false: wait
    size_t read_rate;         // bytes a second on the wire, bursts of 100 ms; 0: no limit
    size_t write_rate;        // likewise
    const void *unread;       // adopt: bytes received before, handed out first; copied
    size_t unread_len;
    netio_framing framing; // first framing; zero: none, on_data
} netio_conn_opts;

typedef struct netio_listener_opts {
    size_t conn_max;          // open connections, closing ones too; 0: 100,000. Above: refused
    size_t conn_max_per_host; // from one IPv4 or IPv6 /64; 0: no limit
    const char *refusal;      // sent to those refused before closing; NULL: nothing. Copied
    bool (*on_accept)(void *user, const netio_addr *peer); // false: refuse; NULL: all
    // A connection that was not handed out: over a limit, handshake failed.
    void (*on_refused)(void *user, const netio_addr *peer, const netio_error *why);
    netio_loop *const *workers; // these loops get the connections in turn; NULL: this loop does.
    size_t worker_count;        // They must outlive the listener; limits then count per worker
    netio_conn_opts conn;       // of each accepted connection; conn.user is on_accept's user too
    netio_socket_opts socket;   // backlog, balance, ...
    // Each connection begins with a PROXY header, before TLS, and its addresses are used. Only the
    // proxies in `proxy_trusted` ("10.0.0.0/8", at least one) may connect; others, and connections
    // without the header, are refused (NETIO_EACCES, NETIO_EPROTO).
    bool proxy_protocol;
    const char *const *proxy_trusted;
    size_t proxy_trusted_count;
} netio_listener_opts;

typedef struct netio_dial_opts {
    int timeout_ms;          // for all of it, to on_open; 0: 30 s, -1: no limit
    const char *server_name; // for filters to check; NULL: the host that was dialed. Copied
    netio_conn_opts conn;
    netio_socket_opts socket; // local, fallback, stagger_ms, resolve, ...
    const char *proxy;        // "socks5://[user:password@]host:port" or "http://...": through this
                              // proxy, which looks the name up; NULL: none. See >>tunnel. Copied
} netio_dial_opts;

// Listen on `address`; for ":0" see netio_listener_addr. `handler` must outlive the listener and
// its connections. When descriptors run out, accepting pauses (10 ms, doubling to 1 s) and comes
// back by itself. On a system without dual-stack sockets ":port" opens two, on the same port.
// Returns 0; as netio_listen; adopt (takes s): NETIO_EINVAL (it does not listen).
NETIO_API int netio_listener_open(netio_listener *out, netio_loop *loop, const char *address,
                                  const netio_handler *handler, const netio_listener_opts *opts);
NETIO_API int netio_listener_adopt(netio_listener *out, netio_loop *loop, netio_socket s,
                                   const netio_handler *handler, const netio_listener_opts *opts);
NETIO_API void netio_listener_close(netio_listener l); // its connections live on
NETIO_API int netio_listener_pause(netio_listener l);  // clients wait in the backlog
NETIO_API int netio_listener_resume(netio_listener l);
NETIO_API int netio_listener_addr(netio_listener l, netio_addr *out);
NETIO_API int netio_listener_socket(netio_listener l, netio_socket *out); // the first; stays its
NETIO_API int netio_listener_stats(netio_listener l, netio_stats *out);
NETIO_API int netio_listener_set_filter(netio_listener l, netio_filter f); // new connections only

// Connect to "host:port" or any address text. `*out` is usable at once: what is written goes out
// after on_open. Success ends in on_open, failure in on_close; neither before this returns.
// Returns 0; NETIO_EINVAL (text, options), NETIO_ENOMEM, NETIO_ECANCELED (the loop is being
// destroyed): then there is no connection and no on_close.
// See RFC 8305 sections 4 and 5
NETIO_API int netio_conn_dial(netio_conn *out, netio_loop *loop, const char *address,
                              const netio_handler *handler, const netio_dial_opts *opts);

// Take a connected stream socket (takes s; its mode is put back by detach); on_open follows. detach
// gives it back with the bytes received but not handed out: their number is returned (NETIO_ENOSPC:
// more than `cap`; NETIO_EBUSY: bytes are queued, a filter is on, or it is not open). After detach
// on_close(c, 0) runs. In on_data, first netio_conn_unread what the new owner shall have.
NETIO_API int netio_conn_adopt(netio_conn *out, netio_loop *loop, netio_socket s,
                               const netio_handler *handler, const netio_conn_opts *opts);
NETIO_API ptrdiff_t netio_conn_detach(netio_conn c, netio_socket *out, void *unread, size_t cap);

// Write. Returns 0: sent or queued, all of it; NETIO_ENOBUFS: queue full, nothing taken;
// NETIO_EPIPE after shutdown; NETIO_ESTALE; NETIO_ENOMEM.
NETIO_API int netio_conn_write(netio_conn c, const void *data, size_t len); // copies
NETIO_API int netio_conn_writev(netio_conn c, const netio_buf *bufs, size_t count);

// Takes `data`: release(user) runs from the loop when it is no longer needed, sent or not. No copy
// (a filter copies). Each takes some 100 bytes besides, which the queue's limit does not count.
NETIO_API int netio_conn_write_owned(netio_conn c, const void *data, size_t len, netio_task release,
                                     void *user);

// `len` bytes of a file from `off`, in order with other writes; release as above. A file that is
// shorter ends the connection with NETIO_ETRUNCATED. Under a filter it is read and copied.
NETIO_API int netio_conn_write_file(netio_conn c, netio_file file, uint64_t off, uint64_t len,
                                    netio_task release, void *user);

// One frame in the connection's framing (a plain write if it has none), header and payload in one
// send. send_frame also takes the type and header bytes. Returns as write; as netio_encode.
NETIO_API int netio_conn_send(netio_conn c, const void *data, size_t len);
NETIO_API int netio_conn_send_frame(netio_conn c, const netio_frame *frame);

NETIO_API int netio_conn_flush(netio_conn c);      // send now, not at the turn's end
NETIO_API size_t netio_conn_pending(netio_conn c); // bytes written and not sent; 0 if stale
NETIO_API bool netio_conn_congested(netio_conn c); // above high mark: on_drain will follow

// In on_data: keep the last `len` bytes of this piece. They come first, in one piece with what
// follows, when more arrives or reading resumes. At most one receive buffer is kept: when it is
// full the socket is not read. Returns 0; NETIO_EINVAL (not in this connection's on_data, or more
// than the piece), NETIO_ENOBUFS (more than a receive buffer), NETIO_ENOMEM.
NETIO_API int netio_conn_unread(netio_conn c, size_t len);

NETIO_API int netio_conn_pause(netio_conn c); // no on_data, no on_eof; nothing is read
NETIO_API int netio_conn_resume(netio_conn c);

NETIO_API int netio_conn_shutdown(netio_conn c); // FIN after the queue; reading goes on
// Queue, FIN, then read and drop until the peer's FIN, close_timeout_ms or close_drain_max: a peer
// that reads within those bounds loses no byte, else it is reset (on_close: NETIO_ETIMEDOUT). The
// handle is stale from this call on, but for what can be read in on_close.
NETIO_API int netio_conn_close(netio_conn c);
NETIO_API int netio_conn_abort(netio_conn c); // RST, now; on_close gets NETIO_ECONNABORTED

// Change it while it runs. Marks: low above high, or high above max, are NETIO_EINVAL.
NETIO_API int netio_conn_set_handler(netio_conn c, const netio_handler *handler);
// Bytes not handed out are read under the new framing; zero: none from now on. A frame that breaks
// the rules ends the connection: netio_conn_error says where it begins (offset) and how long it
// claims to be (size). With WEBSOCKET framing pings are answered, a close frame is answered and
// ends the connection, and an error is told to the peer in one; on_frame sees them all the same.
// Returns 0; NETIO_EINVAL, NETIO_ENOTSUP (framing); NETIO_ENOMEM.
NETIO_API int netio_conn_set_framing(netio_conn c, netio_framing framing);
NETIO_API int netio_conn_set_timeout(netio_conn c, int which, int timeout_ms); // 0: the default
NETIO_API int netio_conn_set_rate(netio_conn c, size_t read_rate, size_t write_rate);
NETIO_API int netio_conn_set_marks(netio_conn c, size_t high_mark, size_t low_mark, size_t max);

// Put a filter on, nearest to the wire: what was written before goes out without it. on_secure
// follows when it is ready; writes wait until then. Returns 0; NETIO_EPROTO if unread bytes forbid
// it (see from_clean); NETIO_ENOMEM.
NETIO_API int netio_conn_add_filter(netio_conn c, netio_filter f);

// The `self` of the filter with this table, nearest to the handler; NULL: none. What it is, its
// header says.
NETIO_API void *netio_conn_filter(netio_conn c, const netio_filter_ops *ops);

// These also work in on_close; but there the addresses of an accepted connection that was reset may
// be gone (NETIO_ENOTCONN): keep them from on_open.
NETIO_API void *netio_conn_user(netio_conn c); // NULL if stale
NETIO_API void netio_conn_set_user(netio_conn c, void *user);
NETIO_API netio_loop *netio_conn_loop(netio_conn c); // NULL if stale
NETIO_API bool netio_conn_alive(netio_conn c);       // not stale, not closing
NETIO_API bool netio_conn_same(netio_conn a, netio_conn b);
NETIO_API uint64_t netio_conn_id(netio_conn c); // never given twice by a loop; for logs
NETIO_API int netio_conn_peer(netio_conn c, netio_addr *out);
NETIO_API int netio_conn_local(netio_conn c, netio_addr *out);
NETIO_API const char *netio_conn_server_name(netio_conn c); // dialed host; "" for accepted ones
NETIO_API int netio_conn_socket(netio_conn c, netio_socket *out); // for options; stays its.
                                                                  // NETIO_ENOTSUP in memory
NETIO_API int netio_conn_stats(netio_conn c, netio_stats *out);

// Why it ended; also valid in on_close. Returns 0; NETIO_ENOENT if nothing failed. attempts gives
// one record for each address of a failed dial, at most `cap`, and returns their number.
NETIO_API int netio_conn_error(netio_conn c, netio_error *out);
NETIO_API size_t netio_conn_attempts(netio_conn c, netio_error *out, size_t cap);

// Visit every open connection of a loop; adding and closing meanwhile is allowed, and those added
// are not visited.
NETIO_API void netio_conn_each(netio_loop *loop, void (*visit)(void *user, netio_conn c),
                               void *user);

// Join two open connections of one loop: each one's bytes go to the other, with back-pressure and
// half-close, through the kernel where it can (Linux, no filter, no rate), until both ended or one
// fails: then the other is aborted. Of their handlers on_timeout, on_stop and on_close stay.
// Returns 0; NETIO_EINVAL (the same, or two loops), NETIO_EBUSY (joined already), NETIO_ENOMEM.
NETIO_API int netio_conn_relay(netio_conn a, netio_conn b);

//================================================================================================
// >>udp                                                                   datagrams on the loop
//
// Datagrams come in batches, in slots of the loop's buffer, lent. What is sent in one turn leaves
// in one batch. ICMP errors end nothing; only a connected endpoint reports them.
//================================================================================================

typedef struct netio_udp_handler {
    // At least one; the array may be changed and given to netio_udp_send_batch as an answer.
    void (*on_datagrams)(netio_udp u, netio_datagram *msgs, size_t count);
    void (*on_drain)(netio_udp u);          // sending works again after NETIO_ENOBUFS
    void (*on_error)(netio_udp u, int err); // of one datagram; connected: NETIO_ECONNREFUSED
    void (*on_close)(netio_udp u, int err); // once, last
} netio_udp_handler;

typedef struct netio_udp_opts {
    void *user;
    size_t datagram_max;      // slot for one datagram; 0: 2048, at most 64 KiB. Longer ones are cut
    size_t write_queue_max;   // bytes, and some 370 for each datagram; 0: 256 KiB. Beyond, what is
                              // queued is sent; if that does not help: NETIO_ENOBUFS, counted
    const char *peer;         // connect to "addr:port": no name; NULL: talk to anyone
    netio_socket_opts socket; // settings (RECV_LOCAL...), share_group, balance
} netio_udp_opts;

// Bind to `address` (NULL: any port). Returns 0; as netio_bind. adopt takes s.
NETIO_API int netio_udp_open(netio_udp *out, netio_loop *loop, const char *address,
                             const netio_udp_handler *handler, const netio_udp_opts *opts);
NETIO_API int netio_udp_adopt(netio_udp *out, netio_loop *loop, netio_socket s,
                              const netio_udp_handler *handler, const netio_udp_opts *opts);
NETIO_API void netio_udp_close(netio_udp u); // after what is queued, at most 1 s

// Copies. `to` NULL: the connected peer. Returns 0; NETIO_ENOBUFS (dropped), NETIO_EMSGSIZE (above
// 65,507 bytes), NETIO_ESTALE, NETIO_ENOMEM, NETIO_ENOTCONN. send_batch sends at once what it can
// and copies the rest; it returns how many were taken.
NETIO_API int netio_udp_send(netio_udp u, const void *data, size_t len, const netio_addr *to);
NETIO_API ptrdiff_t netio_udp_send_batch(netio_udp u, const netio_datagram *msgs, size_t count);

NETIO_API int netio_udp_pause(netio_udp u);
NETIO_API int netio_udp_resume(netio_udp u);
NETIO_API void *netio_udp_user(netio_udp u);
NETIO_API netio_loop *netio_udp_loop(netio_udp u);
NETIO_API int netio_udp_addr(netio_udp u, netio_addr *out);
NETIO_API int netio_udp_socket(netio_udp u, netio_socket *out); // options, multicast; stays its
NETIO_API int netio_udp_stats(netio_udp u, netio_stats *out);

//================================================================================================
// >>network                                                         a network in memory, for tests
//
// Loops that are given a netio_network reach each other over it with the calls above, unchanged,
// without sockets: latency, bandwidth, loss, short reads and writes, resets, partitions. One thread
// runs all of them. Its clock is virtual: time passes only when nothing is left to do now, so an
// hour of waiting takes no time, and the same seed gives the same events in the same order.
// (An exchange that never ends over a link without latency stops the clock.)
// An address belongs to the loop that was given it as `host` or listens on it; a name is what
// netio_network_name says. TCP and UDP ports are like the OS's; what needs a real descriptor
// (adopt, detach, watch, netio_conn_socket) is NETIO_ENOTSUP.
//================================================================================================

// What happens between two hosts, each way. Zero: everything arrives at once, in order, unharmed.
typedef struct netio_link {
    int latency_ms;         // each way
    int jitter_ms;          // datagrams: up to this much more, so that they overtake each other
    int loss_permille;      // datagrams lost of 1000
    int duplicate_permille; // datagrams that arrive twice
    size_t bandwidth;       // bytes a second, of each connection and of each endpoint; 0: no limit
    size_t window;     // bytes under way in one direction of a connection, until they are read; 0:
                       // 256 KiB. Endpoints: 1 MiB, and as much waits to be read, the rest is lost
    size_t piece_max;  // pieces received are of 1 to this many bytes, at random; 0: what is there
    size_t send_max;   // likewise the bytes that one send takes; 0: what the window allows
    uint64_t reset_at; // a connection is reset after this many bytes one way; 0: never
    bool cut;          // nothing passes: connections stall, datagrams are lost, dials time out
} netio_link;

typedef struct netio_network_opts {
    uint64_t seed;   // of everything that is random; 0: 1
    netio_link link; // between all hosts
} netio_network_opts;

NETIO_API int netio_network_create(netio_network **out, const netio_network_opts *opts);
NETIO_API int netio_network_destroy(netio_network *net); // NETIO_EBUSY: loops still use it

// A name for an address ("10.0.0.1"). Returns 0; NETIO_EINVAL, NETIO_ENOMEM.
NETIO_API int netio_network_name(netio_network *net, const char *name, const char *host);

// Replace the link between two hosts, both ways; NULL: any host. The link set last that fits
// counts, for what is sent from now on. Returns 0; NETIO_EINVAL, NETIO_ENOMEM.
NETIO_API int netio_network_link(netio_network *net, const char *host_a, const char *host_b,
                                 const netio_link *link);

// Run all its loops for so much virtual time; -1: until nothing is left that could happen, or one
// of them was stopped. (netio_loop_run of one loop does the same until that loop is done.)
// Returns 0; NETIO_EBUSY (from a callback).
NETIO_API int netio_network_run(netio_network *net, int duration_ms);
NETIO_API uint64_t netio_network_now_us(const netio_network *net);

// A pair of connections in memory on any loop, on that loop's clock.
typedef struct netio_pair_opts {
    netio_link link;
    netio_conn_opts a, b;
} netio_pair_opts;

NETIO_API int netio_conn_pair(netio_conn out[2], netio_loop *loop, const netio_handler *a,
                              const netio_handler *b, const netio_pair_opts *opts);
#endif // NETIO_NO_LOOP

//================================================================================================
// >>helper                                                    small tools, each usable by itself
//
// Values of yours, no clock and no thread of their own: pass `now_ms` from netio_now_ms, from
// a loop's clock, or from a test. Time that goes backwards counts as none. What has a create uses
// the heap. One thread at a time, but for netio_pool, which threads share.
//================================================================================================

#ifndef NETIO_NO_HELPERS
// --- backoff: pauses between attempts ----------------------------------------------------------

typedef struct netio_backoff {
    int base_ms;    // first pause, doubled each time; 0: 1000
    int cap_ms;     // no pause is longer, with its jitter; 0: 30,000
    int jitter_pct; // each pause is shortened or lengthened by up to this; 0: 20, -1: none
    int tries_max;  // attempts until NETIO_ETIMEDOUT; 0: no limit
    int tries;      // that failed so far; set it to 0 on success
    uint32_t seed;  // of the jitter, each call changes it; 0: from the clock
} netio_backoff;

// Call it when an attempt has failed. Returns the ms to wait before the next; NETIO_ETIMEDOUT: it
// was the last, number tries_max; NETIO_EINVAL (a negative field, jitter_pct above 100).
NETIO_API int netio_backoff_next(netio_backoff *b);

// --- bucket: so many a second, with a burst ----------------------------------------------------

typedef struct netio_bucket {
    double rate;   // tokens a second
    double burst;  // most tokens saved up, and how many at first; 0: a second's worth, at least 1
    double tokens; // netio's own, as at_ms
    uint64_t at_ms;
} netio_bucket;

// Returns 0 and takes n; else how many ms until there would be n, taking none; NETIO_EINVAL (rate
// not positive, n negative or more than `burst`: there would never be as many).
NETIO_API int netio_bucket_take(netio_bucket *b, double n, uint64_t now_ms);

// --- window: so many per host in a sliding time ------------------------------------------------

typedef struct netio_window netio_window;

// At most `per_host` (0: 10) in any window_ms (0: 60,000), for the hosts_max (0: 4096) hosts that
// were seen last. Gives a window; netio_window_destroy frees it. All of its memory is taken here:
// about 40 + 8 * per_host bytes a host.
// Returns 0; NETIO_ENOMEM, NETIO_EINVAL (window_ms negative, per_host above 2^20, hosts_max above
// 2^24).
NETIO_API int netio_window_create(netio_window **out, size_t per_host, int window_ms,
                                  size_t hosts_max);
NETIO_API void netio_window_destroy(netio_window *w); // NULL: nothing

// A host is an IPv4 address, or the /64 of an IPv6 one, which is what one customer gets. Takes
// constant time. When the table is full, the host that was quiet longest is forgotten.
// Returns 0: allowed, and counted; NETIO_EBUSY: too many, not counted; NETIO_EINVAL (not IP).
NETIO_API int netio_window_take(netio_window *w, const netio_addr *host, uint64_t now_ms);

// --- heartbeat: is the peer still there? -------------------------------------------------------

enum { NETIO_HEARTBEAT_PING = 1, NETIO_HEARTBEAT_DEAD = 2 };

typedef struct netio_heartbeat {
    int interval_ms;   // silence before a ping, and between pings
    int limit_ms;      // from the oldest unanswered ping to dead; later pings do not extend it
    int state;         // netio's own, as the rest
    uint64_t last_ms;  // when something came, or was asked
    uint64_t asked_ms; // the oldest unanswered ping
} netio_heartbeat;

NETIO_API void netio_heartbeat_seen(netio_heartbeat *h, uint64_t now_ms); // anything arrived

// Call it from a timer, after what has arrived was seen; time counts from the first call. Returns
// 0, NETIO_HEARTBEAT_PING (send one) or NETIO_HEARTBEAT_DEAD (until something arrives);
// NETIO_EINVAL (interval or limit not positive).
NETIO_API int netio_heartbeat_tick(netio_heartbeat *h, uint64_t now_ms);

#ifndef NETIO_NO_THREADS
// --- pool: a few things that are costly to open, shared by threads -----------------------------

typedef struct netio_pool netio_pool;

// The callbacks run on the thread that called the pool, without its lock, so that a slow one holds
// nobody else up, and on several threads at once. They may call the pool.
typedef struct netio_pool_opts {
    void *user;   // for the callbacks
    size_t max;   // open at once, idle ones included; 0: 10
    int check_ms; // check what was idle for this long before giving it out; 0: 10 s, -1: always
    int idle_ms;  // close what was idle for this long, at the next acquire or release; 0: never
    // Fill `*item`, within what is left of acquire's time. Returns 0 or an error, which acquire
    // hands on.
    int (*open)(void *user, void **item, int timeout_ms);
    void (*close)(void *user, void *item);
    bool (*check)(void *user, void *item); // false: broken, it is closed; NULL: all are good
} netio_pool_opts;

// Gives a pool; netio_pool_destroy frees it. Copies `opts`; nothing is opened yet.
// Returns 0; NETIO_ENOMEM, NETIO_EINVAL (no open or close, check_ms below -1, idle_ms negative).
NETIO_API int netio_pool_create(netio_pool **out, const netio_pool_opts *opts);

// Closes what is idle; the rest is closed when given back, and the last one frees the pool. Threads
// that wait in acquire get NETIO_ECANCELED. NULL: nothing.
NETIO_API void netio_pool_destroy(netio_pool *p);

// The item that came back last and passes the check, else a new one. It is yours until released.
// Threads that wait have no order.
// Returns 0; NETIO_EBUSY (timeout_ms 0, and `max` are in use), NETIO_ETIMEDOUT, NETIO_ECANCELED,
// NETIO_EINVAL; what open returned.
NETIO_API int netio_pool_acquire(netio_pool *p, void **item, int timeout_ms);
NETIO_API void netio_pool_release(netio_pool *p, void *item, bool broken); // broken: it is closed
#endif                                                                     // NETIO_NO_THREADS

// --- the rest: one call each -------------------------------------------------------------------

// Try until something accepts at "host:port" or any address text. It sees a connection that ends at
// once. Refusals, a missing socket file, no route and silent name servers are tried again, with
// pauses of 10 ms, doubled up to 250 ms.
// Returns 0; NETIO_ETIMEDOUT; all else at once, as netio_connect: NETIO_EAI_NONAME, NETIO_EINVAL...
// With timeout_ms 0 it tries once.
NETIO_API int netio_wait_listening(const char *address, int timeout_ms);

// Receive `len` bytes (UINT64_MAX: to the end) of a stream into a file from `off` on, by a copy of
// 16 KiB at a time; all or fail. The file's own position does not move. `*done` (may be NULL) says
// how many bytes it got, also on error. When the file fails, up to 16 KiB that were received are
// lost with it: give the stream up.
//
// Returns  0; NETIO_EOF (nothing came), NETIO_ETRUNCATED, NETIO_ETIMEDOUT and others as
//          netio_recv_exact; NETIO_EIO and others from writing (a full disk: NETIO_EIO);
//          NETIO_EINVAL (no stream, offsets past 2^63), NETIO_ENOTSUP (a pipe: no positions).
// Linux    a file opened for appending is written at its end, whatever `off` says: see pwrite(2).
NETIO_API int netio_recvfile(netio_socket s, netio_file file, uint64_t off, uint64_t len,
                             uint64_t *done, int timeout_ms);

// The Internet checksum (RFC 1071) in host byte order: 0xFFFF for no bytes; NULL counts as none.
NETIO_API uint16_t netio_checksum_inet(const void *data, size_t len);

// "0000  48 65 6c 6c 6f ...  Hello": 16 bytes a line, each ended by a newline; the offset gets
// wider past 0xFFFF. Returns the length without NUL; NETIO_ENOSPC (what fits is terminated).
NETIO_API ptrdiff_t netio_hexdump(char *buf, size_t cap, const void *data, size_t len);

// Printable ASCII, tabs and line ends, or UTF-8 above; false for no bytes.
NETIO_API bool netio_looks_like_text(const void *data, size_t len);
#endif // NETIO_NO_HELPERS

#ifdef __cplusplus
}
#endif
#endif // NETIO_H

//################################################################################################
//
//                                        IMPLEMENTATION
//
//################################################################################################

#if defined(NETIO_IMPLEMENTATION) && !defined(NETIO__IMPLEMENTED)
#define NETIO__IMPLEMENTED 1

//================================================================================================
// >>platform.c                                                       systems, compilers, switches
//
// The one place that names systems and compilers. What follows asks NETIO__HAS_*, always 0 or 1,
// each of which may be set from outside (the tests put a kqueue on Linux that way).
//================================================================================================

#if defined(_WIN32)
#define NETIO__WINDOWS 1
#else
#define NETIO__WINDOWS 0
#endif
#if defined(__linux__)
#define NETIO__LINUX 1
#else
#define NETIO__LINUX 0
#endif
#if defined(__APPLE__)
#define NETIO__APPLE 1
#else
#define NETIO__APPLE 0
#endif
#if defined(__FreeBSD__) || defined(__DragonFly__)
#define NETIO__FREEBSD 1
#else
#define NETIO__FREEBSD 0
#endif
#if defined(__NetBSD__) || defined(__OpenBSD__)
#define NETIO__NETBSD 1
#else
#define NETIO__NETBSD 0
#endif
#if NETIO__APPLE || NETIO__FREEBSD || NETIO__NETBSD
#define NETIO__BSD 1
#else
#define NETIO__BSD 0
#endif
#if defined(__x86_64__) || defined(__i386__)
#define NETIO__X86 1
#else
#define NETIO__X86 0
#endif
#if !NETIO__WINDOWS && !NETIO__LINUX && !NETIO__BSD && !defined(NETIO_PORT_UNTESTED)
#error "netio.h: neither Linux, macOS, BSD nor Windows. NETIO_PORT_UNTESTED tries plain POSIX"
#define NETIO__STOP 1 // one error is enough: the rest is left out
#endif

// glibc shows what the first of its headers was asked for: too little, if that came before this one
// under -std=c99 or a bare _POSIX_C_SOURCE.
#if defined(__GLIBC__) && !defined(__USE_MISC)
#error "netio.h: include it before any system header, or compile with -D_GNU_SOURCE or -std=gnu99"
#define NETIO__STOP 1
#endif

#if NETIO__WINDOWS && defined(_WIN32_WINNT)
#if _WIN32_WINNT < 0x0600
#error "netio.h: needs _WIN32_WINNT of 0x0600 (Windows Vista) or newer"
#define NETIO__STOP 1
#endif
#endif
#if defined(_WINSOCKAPI_) && !defined(_WINSOCK2API_) && !defined(_WINSOCK2_H)
#error "netio.h: <windows.h> brought <winsock.h>: include netio.h before it, or <winsock2.h>"
#define NETIO__STOP 1
#endif
#ifndef NETIO__STOP

#if NETIO__WINDOWS
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0600
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#define NETIO__UNDEF_LEAN 1
#endif
#ifndef NOMINMAX
#define NOMINMAX
#define NETIO__UNDEF_NOMINMAX 1
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#ifdef NETIO__UNDEF_LEAN
#undef WIN32_LEAN_AND_MEAN
#undef NETIO__UNDEF_LEAN
#endif
#ifdef NETIO__UNDEF_NOMINMAX
#undef NOMINMAX
#undef NETIO__UNDEF_NOMINMAX
#endif
#ifdef _MSC_VER
#pragma comment(lib, "ws2_32")
#pragma warning(push)
#pragma warning(disable : 4127 4706 4996) // constant conditions, assignments in conditions
#endif
#else
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifndef NETIO_NO_THREADS
#include <pthread.h>
#endif
#endif
#include <string.h>

// --- what the system has -----------------------------------------------------------------------

#ifndef NETIO__HAS_EPOLL
#define NETIO__HAS_EPOLL NETIO__LINUX
#endif
#ifndef NETIO__HAS_KQUEUE
#define NETIO__HAS_KQUEUE NETIO__BSD
#endif
#ifndef NETIO__HAS_POLL
#define NETIO__HAS_POLL !NETIO__WINDOWS
#endif
#ifndef NETIO__HAS_SELECT
#define NETIO__HAS_SELECT 1
#endif
#ifndef NETIO__HAS_WSAPOLL
#define NETIO__HAS_WSAPOLL NETIO__WINDOWS
#endif
#ifndef NETIO__HAS_AFD
#define NETIO__HAS_AFD NETIO__WINDOWS
#endif
#ifdef NETIO_NO_EPOLL
#undef NETIO__HAS_EPOLL
#define NETIO__HAS_EPOLL 0
#endif
#ifdef NETIO_NO_KQUEUE
#undef NETIO__HAS_KQUEUE
#define NETIO__HAS_KQUEUE 0
#endif
#ifdef NETIO_NO_POLL
#undef NETIO__HAS_POLL
#define NETIO__HAS_POLL 0
#endif
#ifdef NETIO_NO_SELECT
#undef NETIO__HAS_SELECT
#define NETIO__HAS_SELECT 0
#endif
#ifdef NETIO_NO_WSAPOLL
#undef NETIO__HAS_WSAPOLL
#define NETIO__HAS_WSAPOLL 0
#endif
#ifdef NETIO_NO_AFD
#undef NETIO__HAS_AFD
#define NETIO__HAS_AFD 0
#endif
#ifdef NETIO_NO_POLLER
#define NETIO__HAS_POLLER 0
#else
#define NETIO__HAS_POLLER 1
#endif
#if NETIO__HAS_POLLER && !NETIO__HAS_SELECT && !NETIO__HAS_POLL && !NETIO__HAS_WSAPOLL &&          \
    !NETIO__HAS_EPOLL && !NETIO__HAS_KQUEUE && !NETIO__HAS_AFD
#error "netio.h: no poller backend is left: define NETIO_NO_POLLER too"
#endif
#ifdef NETIO_NO_LOOP
#define NETIO__HAS_LOOP 0
#else
#define NETIO__HAS_LOOP 1
#endif
#ifndef NETIO_DEBUG
#define NETIO_DEBUG 0
#endif
#ifdef NETIO_NO_HELPERS
#define NETIO__HAS_HELPERS 0
#else
#define NETIO__HAS_HELPERS 1
#endif
#if defined(NETIO_NO_WEBSOCKET) || defined(NETIO_NO_FRAME)
#define NETIO__HAS_WEBSOCKET 0
#else
#define NETIO__HAS_WEBSOCKET 1
#endif
// Keeps what is rarely needed out of the way of what runs all the time.
#if defined(__GNUC__)
#define NETIO__COLD __attribute__((noinline, cold))
#else
#define NETIO__COLD
#endif
#ifdef NETIO_NO_THREADS
#define NETIO__HAS_THREADS 0
#else
#define NETIO__HAS_THREADS 1
#endif
#ifdef NETIO_NO_UNIX
#define NETIO__HAS_UNIX 0
#else
#define NETIO__HAS_UNIX 1
#endif
#define NETIO__HAS_ABSTRACT (NETIO__HAS_UNIX && NETIO__LINUX) // names without a file
#define NETIO__HAS_EVENTFD NETIO__LINUX

// Flags at creation: SOCK_NONBLOCK and SOCK_CLOEXEC, accept4, pipe2. macOS has none of them.
#if !NETIO__WINDOWS && !NETIO__APPLE && defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC)
#define NETIO__HAS_SOCK_FLAGS 1
#else
#define NETIO__HAS_SOCK_FLAGS 0
#endif
#if NETIO__BSD
#define NETIO__HAS_SA_LEN 1 // the first byte of a sockaddr is its length
#else
#define NETIO__HAS_SA_LEN 0
#endif
#if defined(SO_NOSIGPIPE)
#define NETIO__HAS_NOSIGPIPE 1
#else
#define NETIO__HAS_NOSIGPIPE 0
#endif
#if defined(MSG_NOSIGNAL)
#define NETIO__NOSIGNAL MSG_NOSIGNAL
#else
#define NETIO__NOSIGNAL 0 // old macOS: SO_NOSIGPIPE does it
#endif

#if NETIO__HAS_EPOLL && NETIO__HAS_POLLER
#include <sys/epoll.h>
#endif
#if NETIO__HAS_KQUEUE && NETIO__HAS_POLLER
#include <sys/event.h>
#endif
#if NETIO__HAS_EVENTFD
#include <sys/eventfd.h>
#endif
#if NETIO__LINUX
#include <sys/sendfile.h>
#include <sys/syscall.h>
#endif

// glibc and musl hide these when a header of theirs came first without _GNU_SOURCE, as in most
// programs that include <stdio.h> at the top. They are in the library all the same.
#if NETIO__LINUX && !defined(__cplusplus) && !defined(__USE_GNU)
int accept4(int s, struct sockaddr *addr, socklen_t *len, int flags);
int dup3(int from, int to, int flags);
int pipe2(int fds[2], int flags);
#endif

#ifndef NETIO_MALLOC
#include <stdlib.h>
#define NETIO_MALLOC(size) malloc(size)
#define NETIO_REALLOC(ptr, size) realloc(ptr, size)
#define NETIO_FREE(ptr) free(ptr)
#endif
#ifndef NETIO_ASSERT
#define NETIO_ASSERT(expr) ((void)0)
#endif
#ifndef NETIO_ON_OP
#define NETIO_ON_OP(op, socket, result) ((void)(op), (void)(socket), (void)(result))
#endif
#ifndef NETIO_GETADDRINFO
#define NETIO_GETADDRINFO getaddrinfo
#define NETIO_FREEADDRINFO freeaddrinfo
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define NETIO__IO_MAX 0x40000000u // most bytes of one system call: lengths are int somewhere
#define NETIO__PIECES 64          // pieces of one vectored system call; POSIX promises 16
#define NETIO__NEVER INT64_MAX    // a deadline that does not come

#if NETIO__WINDOWS
typedef WSABUF netio__iov;
typedef int netio__socklen;
typedef struct netio__sockaddr_un { // <afunix.h> is missing from many compilers
    ADDRESS_FAMILY sun_family;
    char sun_path[108];
} netio__sockaddr_un;
#else
typedef struct iovec netio__iov;
typedef socklen_t netio__socklen;
typedef struct sockaddr_un netio__sockaddr_un;
#endif

//================================================================================================
// >>error.c
//================================================================================================

typedef struct netio__error_row {
    int err;
    const char *name, *text;
} netio__error_row;

// clang-format off
static const netio__error_row netio__errors[] = {
    {NETIO_OK,            "OK",            "success"},
    {NETIO_EAGAIN,        "EAGAIN",        "nothing there now, try again when ready"},
    {NETIO_EOF,           "EOF",           "end of stream"},
    {NETIO_ETIMEDOUT,     "ETIMEDOUT",     "timed out"},
    {NETIO_ECANCELED,     "ECANCELED",     "cancelled"},
    {NETIO_EINPROGRESS,   "EINPROGRESS",   "connection under way"},
    {NETIO_EINVAL,        "EINVAL",        "invalid argument"},
    {NETIO_ESTALE,        "ESTALE",        "stale handle"},
    {NETIO_EBADF,         "EBADF",         "not an open descriptor"},
    {NETIO_ENOTSOCK,      "ENOTSOCK",      "not a socket"},
    {NETIO_ENOTSUP,       "ENOTSUP",       "not supported by this system or build"},
    {NETIO_EEXIST,        "EEXIST",        "exists already"},
    {NETIO_ENOENT,        "ENOENT",        "no such file, name or registration"},
    {NETIO_ENOTCONN,      "ENOTCONN",      "not connected"},
    {NETIO_EISCONN,       "EISCONN",       "connected already"},
    {NETIO_EPIPE,         "EPIPE",         "the peer or this side takes no more data"},
    {NETIO_ENAMETOOLONG,  "ENAMETOOLONG",  "path too long for a socket address"},
    {NETIO_ENOMEM,        "ENOMEM",        "out of memory"},
    {NETIO_ENOBUFS,       "ENOBUFS",       "queue full"},
    {NETIO_EMFILE,        "EMFILE",        "out of descriptors"},
    {NETIO_EMSGSIZE,      "EMSGSIZE",      "message too large"},
    {NETIO_ENOSPC,        "ENOSPC",        "buffer or set too small"},
    {NETIO_EBUSY,         "EBUSY",         "limit reached"},
    {NETIO_EACCES,        "EACCES",        "permission denied"},
    {NETIO_EADDRINUSE,    "EADDRINUSE",    "address in use"},
    {NETIO_EADDRNOTAVAIL, "EADDRNOTAVAIL", "address not available"},
    {NETIO_EAFNOSUPPORT,  "EAFNOSUPPORT",  "address family not supported"},
    {NETIO_EAI_NONAME,    "EAI_NONAME",    "no such host name"},
    {NETIO_EAI_AGAIN,     "EAI_AGAIN",     "name servers do not answer"},
    {NETIO_ECONNREFUSED,  "ECONNREFUSED",  "connection refused"},
    {NETIO_ECONNRESET,    "ECONNRESET",    "connection reset by peer"},
    {NETIO_ECONNABORTED,  "ECONNABORTED",  "connection aborted"},
    {NETIO_EHOSTUNREACH,  "EHOSTUNREACH",  "host unreachable"},
    {NETIO_ENETUNREACH,   "ENETUNREACH",   "network unreachable"},
    {NETIO_ENETDOWN,      "ENETDOWN",      "network down"},
    {NETIO_ENODEV,        "ENODEV",        "no such network interface"},
    {NETIO_EPROTO,        "EPROTO",        "malformed data"},
    {NETIO_EBADMSG,       "EBADMSG",       "checksum does not match"},
    {NETIO_EILSEQ,        "EILSEQ",        "not UTF-8"},
    {NETIO_ETRUNCATED,    "ETRUNCATED",    "ended in the middle"},
    {NETIO_ETLS,          "ETLS",          "TLS failed"},
    {NETIO_EIO,           "EIO",           "input/output error"},
};
// clang-format on

static const netio__error_row *netio__error_find(ptrdiff_t err)
{
    static const netio__error_row unknown = {0, "EUNKNOWN", "unknown error"};
    for (size_t i = 0; i < sizeof netio__errors / sizeof netio__errors[0]; i++)
        if (netio__errors[i].err == err) return &netio__errors[i];
    return &unknown;
}

NETIO_API const char *netio_strerror(ptrdiff_t err) { return netio__error_find(err)->text; }

NETIO_API const char *netio_errname(ptrdiff_t err) { return netio__error_find(err)->name; }

// Text into a buffer from `at` on, cut where it ends, always terminated. Returns the length so far.
static size_t netio__text(char *buf, size_t cap, size_t at, const char *text, size_t len)
{
    size_t room = at < cap ? cap - at - 1 : 0, n = len < room ? len : room;
    if (at < cap) {
        memcpy(buf + at, text, n);
        buf[at + n] = 0;
    }
    return at + len;
}

static size_t netio__text_z(char *buf, size_t cap, size_t at, const char *text)
{
    return netio__text(buf, cap, at, text, strlen(text));
}

static size_t netio__text_uint(char *buf, size_t cap, size_t at, unsigned value, unsigned base)
{
    char digits[32];
    size_t n = sizeof digits;
    do {
        digits[--n] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    return netio__text(buf, cap, at, digits + n, sizeof digits - n);
}

//================================================================================================
// >>os-posix.c                                                                       the OS seam
//
// netio__os_*: one small function per thing that differs, in the same order as in >>os-windows.c.
// They return 0 or more, or a NETIO_E* with the OS's code left in its slot; EINTR is retried here.
//================================================================================================

#if !NETIO__WINDOWS

static int netio__os_error(void) { return errno; }

static void netio__os_set_error(int code) { errno = code; }

// Codes that not every system has stand for one that does.
#ifdef ESHUTDOWN
#define NETIO__ESHUTDOWN ESHUTDOWN
#else
#define NETIO__ESHUTDOWN EPIPE
#endif
#ifdef EHOSTDOWN
#define NETIO__EHOSTDOWN EHOSTDOWN
#else
#define NETIO__EHOSTDOWN EHOSTUNREACH
#endif
#ifdef ENONET
#define NETIO__ENONET ENONET
#else
#define NETIO__ENONET ENETUNREACH
#endif
#ifdef EPFNOSUPPORT
#define NETIO__EPFNOSUPPORT EPFNOSUPPORT
#else
#define NETIO__EPFNOSUPPORT EAFNOSUPPORT
#endif
#ifdef ESOCKTNOSUPPORT
#define NETIO__ESOCKTNOSUPPORT ESOCKTNOSUPPORT
#else
#define NETIO__ESOCKTNOSUPPORT EPROTONOSUPPORT
#endif

// The first match counts: some codes are the same number on some systems.
// clang-format off
static const int netio__os_errors[][2] = {
    {EAGAIN, NETIO_EAGAIN}, {EWOULDBLOCK, NETIO_EAGAIN}, {EINPROGRESS, NETIO_EINPROGRESS},
    {EALREADY, NETIO_EINPROGRESS}, {ETIMEDOUT, NETIO_ETIMEDOUT}, {ECANCELED, NETIO_ECANCELED},
    {EINVAL, NETIO_EINVAL}, {EFAULT, NETIO_EINVAL}, {EDOM, NETIO_EINVAL},
    {EPROTOTYPE, NETIO_EINVAL}, {EBADF, NETIO_EBADF}, {ENOTSOCK, NETIO_ENOTSOCK},
    {EOPNOTSUPP, NETIO_ENOTSUP}, {ENOTSUP, NETIO_ENOTSUP}, {ENOSYS, NETIO_ENOTSUP},
    {ENOPROTOOPT, NETIO_ENOTSUP}, {EPROTONOSUPPORT, NETIO_ENOTSUP},
    {NETIO__ESOCKTNOSUPPORT, NETIO_ENOTSUP}, {EEXIST, NETIO_EEXIST}, {ENOENT, NETIO_ENOENT},
    {ENOTDIR, NETIO_ENOENT}, {ENOTCONN, NETIO_ENOTCONN}, {EDESTADDRREQ, NETIO_ENOTCONN},
    {EISCONN, NETIO_EISCONN}, {EPIPE, NETIO_EPIPE}, {NETIO__ESHUTDOWN, NETIO_EPIPE},
    {ENAMETOOLONG, NETIO_ENAMETOOLONG}, {ENOMEM, NETIO_ENOMEM}, {ENOBUFS, NETIO_ENOBUFS},
    {EMFILE, NETIO_EMFILE}, {ENFILE, NETIO_EMFILE}, {EMSGSIZE, NETIO_EMSGSIZE},
    {ENOSPC, NETIO_ENOSPC}, {EBUSY, NETIO_EBUSY}, {EACCES, NETIO_EACCES}, {EPERM, NETIO_EACCES},
    {EROFS, NETIO_EACCES}, {EADDRINUSE, NETIO_EADDRINUSE}, {EADDRNOTAVAIL, NETIO_EADDRNOTAVAIL},
    {EAFNOSUPPORT, NETIO_EAFNOSUPPORT}, {NETIO__EPFNOSUPPORT, NETIO_EAFNOSUPPORT},
    {ECONNREFUSED, NETIO_ECONNREFUSED}, {ECONNRESET, NETIO_ECONNRESET},
    {ENETRESET, NETIO_ECONNRESET}, {ECONNABORTED, NETIO_ECONNABORTED},
    {EHOSTUNREACH, NETIO_EHOSTUNREACH}, {NETIO__EHOSTDOWN, NETIO_EHOSTUNREACH},
    {ENETUNREACH, NETIO_ENETUNREACH}, {NETIO__ENONET, NETIO_ENETUNREACH},
    {ENETDOWN, NETIO_ENETDOWN},
    {ENODEV, NETIO_ENODEV}, {ENXIO, NETIO_ENODEV}, {EPROTO, NETIO_EPROTO},
    {EBADMSG, NETIO_EBADMSG}, {EILSEQ, NETIO_EILSEQ},
};
// clang-format on

static int netio__os_map(int code)
{
    if (code == 0) return 0;
    for (size_t i = 0; i < sizeof netio__os_errors / sizeof netio__os_errors[0]; i++)
        if (netio__os_errors[i][0] == code) return netio__os_errors[i][1];
    return NETIO_EIO;
}

static int netio__os_fail(void)
{
    int err = netio__os_map(errno);
    return err < 0 ? err : NETIO_EIO; // always an error, as compilers see it too
}

static int netio__os_start(void) { return 0; }

static uint64_t netio__os_now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static uint32_t netio__os_if_index(const char *name) { return (uint32_t)if_nametoindex(name); }

static bool netio__os_if_name(uint32_t index, char name[64])
{
    return if_indextoname(index, name) != NULL;
}

// --- descriptors -------------------------------------------------------------------------------

static void netio__os_close(int fd)
{
    int code = errno; // clean-up must not hide the cause; EINTR has closed it as well
    close(fd);
    errno = code;
}

static int netio__os_close_socket(int s)
{
    int code = errno;
    if (close(s) < 0 && errno == EBADF) return NETIO_EBADF;
    errno = code; // EINTR, EIO, ECONNRESET (BSD): it is closed all the same
    return 0;
}

static int netio__os_set_flag(int fd, int get, int set, int flag, bool on)
{
    int flags = fcntl(fd, get);
    if (flags < 0) return netio__os_fail();
    int wanted = on ? flags | flag : flags & ~flag;
    if (wanted != flags && fcntl(fd, set, wanted) < 0) return netio__os_fail();
    return 0;
}

static int netio__os_set_inheritable(int s, bool on)
{
    return netio__os_set_flag(s, F_GETFD, F_SETFD, FD_CLOEXEC, !on);
}

static int netio__os_set_nonblocking(int s, bool on)
{
    return netio__os_set_flag(s, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

static int netio__os_get_nonblocking(int s, bool *on)
{
    int flags = fcntl(s, F_GETFL);
    if (flags < 0) return netio__os_fail();
    *on = (flags & O_NONBLOCK) != 0;
    return 0;
}

#if NETIO__HAS_NOSIGPIPE
static void netio__os_no_sigpipe(int s)
{
    int code = errno, one = 1;
    // macOS fails with EINVAL once the peer is gone: then it is no matter.
    setsockopt(s, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
    errno = code;
}
#else
static void netio__os_no_sigpipe(int s)
{
    (void)s; // each call has MSG_NOSIGNAL
}
#endif

// What a descriptor needs that was made without flags.
static int netio__os_prepare(int s, bool inheritable)
{
    int err = netio__os_set_inheritable(s, inheritable);
    if (err == 0) err = netio__os_set_nonblocking(s, true);
    if (err == 0) netio__os_no_sigpipe(s);
    return err;
}

// One flag fewer to set where sockets are born with it.
#if NETIO__HAS_SOCK_FLAGS
static int netio__os_socket(int *out, int family, int type, int protocol, bool inheritable)
{
    int flags = inheritable ? SOCK_NONBLOCK : SOCK_NONBLOCK | SOCK_CLOEXEC;
    int s = socket(family, type | flags, protocol);
    if (s < 0) return netio__os_fail();
    netio__os_no_sigpipe(s);
    *out = s;
    return 0;
}

#if NETIO__HAS_UNIX
static int netio__os_socketpair(int out[2], int type)
{
    if (socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, out) < 0)
        return netio__os_fail();
    netio__os_no_sigpipe(out[0]);
    netio__os_no_sigpipe(out[1]);
    return 0;
}
#endif

#if NETIO__HAS_POLLER
static int netio__os_pipe(int out[2])
{
    return pipe2(out, O_NONBLOCK | O_CLOEXEC) < 0 ? netio__os_fail() : 0;
}
#endif
#else
#if NETIO__HAS_UNIX || NETIO__HAS_POLLER
static int netio__os_prepare_two(int fds[2])
{
    int err = netio__os_prepare(fds[0], false);
    if (err == 0) err = netio__os_prepare(fds[1], false);
    if (err < 0) {
        netio__os_close(fds[0]);
        netio__os_close(fds[1]);
    }
    return err;
}
#endif

static int netio__os_socket(int *out, int family, int type, int protocol, bool inheritable)
{
    int s = socket(family, type, protocol);
    if (s < 0) return netio__os_fail();
    int err = netio__os_prepare(s, inheritable);
    if (err < 0) netio__os_close(s);
    else *out = s;
    return err;
}

#if NETIO__HAS_UNIX
static int netio__os_socketpair(int out[2], int type)
{
    if (socketpair(AF_UNIX, type, 0, out) < 0) return netio__os_fail();
    return netio__os_prepare_two(out);
}
#endif

#if NETIO__HAS_POLLER
static int netio__os_pipe(int out[2])
{
    if (pipe(out) < 0) return netio__os_fail();
    return netio__os_prepare_two(out);
}
#endif
#endif

// --- socket calls ------------------------------------------------------------------------------

static int netio__os_bind(int s, const void *sa, size_t len)
{
    return bind(s, (const struct sockaddr *)sa, (socklen_t)len) < 0 ? netio__os_fail() : 0;
}

static int netio__os_listen(int s, int backlog)
{
    return listen(s, backlog) < 0 ? netio__os_fail() : 0;
}

// EINTR leaves the connect under way (POSIX), so it is not repeated.
static int netio__os_connect(int s, const void *sa, size_t len)
{
    if (connect(s, (const struct sockaddr *)sa, (socklen_t)len) == 0) return 0;
    return errno == EINTR ? NETIO_EINPROGRESS : netio__os_fail();
}

// Linux connects a socket that answers for itself at once; Windows needs to be told: see there.
static void netio__os_hurry_refusal(int s) { (void)s; }

// Errors of accept(2) that concern the client who left, or the network he came by: the next may
// be well. EPERM is Linux's firewall.
static bool netio__os_accept_skip(int code)
{
    static const int skip[] = {EINTR,      ECONNABORTED, EPROTO,           EPERM,
                               ENETDOWN,   ENOPROTOOPT,  EHOSTUNREACH,     ENETUNREACH,
                               ECONNRESET, ETIMEDOUT,    NETIO__EHOSTDOWN, NETIO__ENONET};
    for (size_t i = 0; i < sizeof skip / sizeof skip[0]; i++)
        if (skip[i] == code) return true;
    return false;
}

#if NETIO__HAS_SOCK_FLAGS
// Some sandboxes and emulators refuse accept4 with ENOSYS.
static int netio__os_accept_raw(int s, struct sockaddr *sa, socklen_t *len)
{
    int client = accept4(s, sa, len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0 && errno == ENOSYS) {
        client = accept(s, sa, len);
        if (client >= 0 && netio__os_prepare(client, false) < 0) {
            netio__os_close(client);
            errno = ECONNABORTED;
            return -1;
        }
    }
    if (client >= 0) netio__os_no_sigpipe(client);
    return client;
}
#else
static int netio__os_accept_raw(int s, struct sockaddr *sa, socklen_t *len)
{
    int client = accept(s, sa, len);
    if (client < 0 || netio__os_prepare(client, false) == 0) return client;
    netio__os_close(client); // macOS: the client is gone already
    errno = ECONNABORTED;
    return -1;
}
#endif

// `sa` of 128 bytes, or NULL. Clients that cannot be served are skipped, 64 at a time.
static int netio__os_accept(int *out, int listener, void *sa, netio__socklen *len)
{
    for (int skipped = 0; skipped < 64; skipped++) {
        socklen_t room = 128;
        int s = netio__os_accept_raw(listener, (struct sockaddr *)sa, sa ? &room : NULL);
        if (s >= 0) {
            if (sa) *len = room;
            *out = s;
            return 0;
        }
        if (errno == EOPNOTSUPP) return NETIO_EINVAL; // a socket that never listens
        if (!netio__os_accept_skip(errno)) return netio__os_fail();
    }
    return NETIO_EAGAIN;
}

static int netio__os_name(int s, void *sa, netio__socklen *len, bool peer)
{
    int r = peer ? getpeername(s, (struct sockaddr *)sa, len)
                 : getsockname(s, (struct sockaddr *)sa, len);
    return r < 0 ? netio__os_fail() : 0;
}

static int netio__os_shutdown(int s, int how)
{
    static const int os_how[] = {0, SHUT_RD, SHUT_WR, SHUT_RDWR};
    return shutdown(s, os_how[how]) < 0 ? netio__os_fail() : 0;
}

static int netio__os_setopt(int s, int level, int name, const void *value, size_t len)
{
    return setsockopt(s, level, name, value, (socklen_t)len) < 0 ? netio__os_fail() : 0;
}

static int netio__os_getopt(int s, int level, int name, void *value, size_t *len)
{
    socklen_t n = (socklen_t)*len;
    if (getsockopt(s, level, name, value, &n) < 0) return netio__os_fail();
    *len = (size_t)n;
    return 0;
}

static int netio__os_family(int s, int *out)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    if (getsockname(s, (struct sockaddr *)&sa, &len) < 0) return netio__os_fail();
    *out = sa.ss_family;
    return 0;
}

static int netio__os_readable(int s, int *out)
{
    return ioctl(s, FIONREAD, out) < 0 ? netio__os_fail() : 0;
}

#if NETIO__LINUX
static int netio__os_unsent(int s, int *out)
{
    return ioctl(s, TIOCOUTQ, out) < 0 ? netio__os_fail() : 0;
}
#elif defined(SO_NWRITE)
static int netio__os_unsent(int s, int *out)
{
    size_t len = sizeof *out;
    return netio__os_getopt(s, SOL_SOCKET, SO_NWRITE, out, &len);
}
#elif defined(FIONWRITE)
static int netio__os_unsent(int s, int *out)
{
    return ioctl(s, FIONWRITE, out) < 0 ? netio__os_fail() : 0;
}
#else
static int netio__os_unsent(int s, int *out)
{
    (void)s, (void)out;
    return NETIO_ENOTSUP;
}
#endif

// --- bytes -------------------------------------------------------------------------------------

enum { NETIO__PEEK = MSG_PEEK };

static ptrdiff_t netio__os_recv(int s, void *buf, size_t cap, int flags)
{
    ssize_t n;
    do n = recv(s, buf, cap, flags | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? netio__os_fail() : (ptrdiff_t)n;
}

// macOS says EPROTOTYPE while a connection is torn down under a send; EPIPE is what is meant.
static int netio__os_send_fail(void)
{
    return errno == EPROTOTYPE ? NETIO_EPIPE : netio__os_fail();
}

static ptrdiff_t netio__os_send(int s, const void *data, size_t len)
{
    ssize_t n;
    do n = send(s, data, len, MSG_DONTWAIT | NETIO__NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? netio__os_send_fail() : (ptrdiff_t)n;
}

static void netio__os_iov_set(netio__iov *v, const void *data, size_t len)
{
    union {
        const void *in;
        void *out;
    } u; // iovec has no const, the calls that send do not write
    u.in = data;
    v->iov_base = u.out;
    v->iov_len = len;
}

static void netio__os_msg(struct msghdr *m, void *sa, size_t sa_len, netio__iov *iov, size_t count)
{
    memset(m, 0, sizeof *m);
    m->msg_name = sa;
    m->msg_namelen = (socklen_t)sa_len;
    m->msg_iov = iov;
    // size_t in glibc, int elsewhere; 1 to NETIO__PIECES. Not counted up from the 0 above: reading
    // back at once what memset wrote in larger pieces stalls the processor.
    m->msg_iovlen = 1;
    for (size_t i = 1; i < count; i++) m->msg_iovlen++;
}

static ptrdiff_t netio__os_recvv(int s, netio__iov *iov, size_t count)
{
    struct msghdr m;
    ssize_t n;
    netio__os_msg(&m, NULL, 0, iov, count);
    do n = recvmsg(s, &m, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? netio__os_fail() : (ptrdiff_t)n;
}

static ptrdiff_t netio__os_sendv(int s, netio__iov *iov, size_t count)
{
    struct msghdr m;
    ssize_t n;
    netio__os_msg(&m, NULL, 0, iov, count);
    do n = sendmsg(s, &m, MSG_DONTWAIT | NETIO__NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? netio__os_send_fail() : (ptrdiff_t)n;
}

// Returns the datagram's length, more than `cap` if it was cut.
#if NETIO__LINUX
// MSG_TRUNC makes it the true length. (On a TCP socket it drops bytes.) recvmsg would take longer,
// by a quarter.
static ptrdiff_t netio__os_recvfrom(int s, void *buf, size_t cap, void *sa, netio__socklen *len)
{
    ssize_t n;
    do n = recvfrom(s, buf, cap, MSG_DONTWAIT | MSG_TRUNC, (struct sockaddr *)sa, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? netio__os_fail() : (ptrdiff_t)n;
}
#else
static ptrdiff_t netio__os_recvfrom(int s, void *buf, size_t cap, void *sa, netio__socklen *len)
{
    struct msghdr m;
    netio__iov iov;
    ssize_t n;
    netio__os_iov_set(&iov, buf, cap);
    netio__os_msg(&m, sa, (size_t)*len, &iov, 1);
    do n = recvmsg(s, &m, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0) return netio__os_fail();
    *len = m.msg_namelen;
    return (m.msg_flags & MSG_TRUNC) && (size_t)n <= cap ? (ptrdiff_t)cap + 1 : (ptrdiff_t)n;
}
#endif

static ptrdiff_t netio__os_sendto(int s, const void *data, size_t len, const void *sa,
                                  size_t sa_len)
{
    ssize_t n;
    do
        n = sendto(s, data, len, MSG_DONTWAIT | NETIO__NOSIGNAL, (const struct sockaddr *)sa,
                   (socklen_t)sa_len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? netio__os_send_fail() : (ptrdiff_t)n;
}

// --- files -------------------------------------------------------------------------------------

#if NETIO__HAS_THREADS
static int netio__os_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    return pthread_sigmask(how, set, old);
}
#else
static int netio__os_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    return sigprocmask(how, set, old);
}
#endif

// Offsets of 64 bits on every system. glibc's off_t has 32 on 32-bit ones, unless the whole program
// is built for more.
#if defined(__GLIBC__) && !defined(__LP64__)
#if !defined(__USE_LARGEFILE64)
ssize_t sendfile64(int out, int in, int64_t *off, size_t len);
ssize_t pread64(int file, void *buf, size_t cap, int64_t off);
#endif
typedef int64_t netio__os_off;
#define NETIO__SENDFILE64 sendfile64
#define NETIO__PREAD64 pread64
#else
typedef off_t netio__os_off;
#define NETIO__SENDFILE64 sendfile
#define NETIO__PREAD64 pread
#endif

#if NETIO__LINUX
// sendfile and splice have no flag against SIGPIPE, so the signal is blocked in this thread while
// they run, and eaten if it came; one that was pending before stays.
typedef struct netio__os_sigpipe {
    sigset_t set, old;
    bool pending;
} netio__os_sigpipe;

static void netio__os_sigpipe_block(netio__os_sigpipe *g)
{
    sigset_t pending;
    sigemptyset(&g->set);
    sigaddset(&g->set, SIGPIPE);
    netio__os_sigmask(SIG_BLOCK, &g->set, &g->old);
    sigpending(&pending);
    g->pending = sigismember(&pending, SIGPIPE) == 1;
}

static void netio__os_sigpipe_restore(netio__os_sigpipe *g, ptrdiff_t result)
{
    int code = errno;
    if (result < 0 && code == EPIPE && !g->pending) {
        struct timespec at_once = {0, 0};
        while (sigtimedwait(&g->set, NULL, &at_once) < 0 && errno == EINTR) {}
    }
    netio__os_sigmask(SIG_SETMASK, &g->old, NULL);
    errno = code;
}

// The kernel's own path. NETIO_ENOTSUP: not for these two, copy instead.
static ptrdiff_t netio__os_sendfile(int s, int file, uint64_t off, size_t len)
{
    netio__os_sigpipe guard;
    netio__os_off at = (netio__os_off)off;
    ssize_t n;
    if ((uint64_t)at != off || at < 0) return NETIO_EINVAL;
    netio__os_sigpipe_block(&guard);
    do n = NETIO__SENDFILE64(s, file, &at, len);
    while (n < 0 && errno == EINTR);
    netio__os_sigpipe_restore(&guard, n);
    if (n >= 0) return (ptrdiff_t)n;
    if (errno == EINVAL || errno == ENOSYS || errno == ESPIPE || errno == EOVERFLOW)
        return NETIO_ENOTSUP;
    return netio__os_send_fail();
}
#elif NETIO__APPLE || NETIO__FREEBSD
#if NETIO__APPLE
static int netio__os_sendfile_call(int s, int file, off_t at, size_t len, off_t *sent)
{
    *sent = (off_t)len; // in: how many, out: how many went
    return sendfile(file, s, at, sent, NULL, 0);
}
#else
static int netio__os_sendfile_call(int s, int file, off_t at, size_t len, off_t *sent)
{
    return sendfile(file, s, at, len, NULL, sent, 0);
}
#endif

// Both tell what went out also when they fail. SO_NOSIGPIPE holds for sendfile too.
static ptrdiff_t netio__os_sendfile(int s, int file, uint64_t off, size_t len)
{
    off_t at = (off_t)off, sent = 0;
    if ((uint64_t)at != off || at < 0) return NETIO_EINVAL;
    int r = netio__os_sendfile_call(s, file, at, len, &sent);
    if (r == 0 || sent > 0) return (ptrdiff_t)sent;
    if (errno == EINTR) return NETIO_EAGAIN;
    if (errno == EINVAL || errno == ENOTSUP || errno == EOPNOTSUPP || errno == ENOTSOCK)
        return NETIO_ENOTSUP;
    return netio__os_send_fail();
}
#else
static ptrdiff_t netio__os_sendfile(int s, int file, uint64_t off, size_t len)
{
    (void)s, (void)file, (void)off, (void)len;
    return NETIO_ENOTSUP;
}
#endif

static ptrdiff_t netio__os_read_file(int file, void *buf, size_t cap, uint64_t off)
{
    netio__os_off at = (netio__os_off)off;
    ssize_t n;
    if ((uint64_t)at != off || at < 0) return NETIO_EINVAL;
    do n = NETIO__PREAD64(file, buf, cap, at);
    while (n < 0 && errno == EINTR);
    return n < 0 ? errno == ESPIPE ? (ptrdiff_t)NETIO_ENOTSUP : netio__os_fail() : (ptrdiff_t)n;
}

static ptrdiff_t netio__os_read_pipe(int file, void *buf, size_t cap)
{
    ssize_t n;
    do n = read(file, buf, cap);
    while (n < 0 && errno == EINTR);
    return n < 0 ? netio__os_fail() : (ptrdiff_t)n;
}

#if NETIO__HAS_UNIX
// What a path is: which file it names, so that a later look can tell a successor's.
typedef struct netio__os_node {
    dev_t dev;
    ino_t ino;
} netio__os_node;

// 0; NETIO_EINVAL: something, but no socket; NETIO_ENOENT...
static int netio__os_stat_socket(const char *path, netio__os_node *out)
{
    struct stat st;
    if (lstat(path, &st) < 0) return netio__os_fail();
    if (!S_ISSOCK(st.st_mode)) return NETIO_EINVAL;
    out->dev = st.st_dev;
    out->ino = st.st_ino;
    return 0;
}

static bool netio__os_same_node(const netio__os_node *a, const netio__os_node *b)
{
    return a->dev == b->dev && a->ino == b->ino;
}

static int netio__os_unlink(const char *path) { return unlink(path) < 0 ? netio__os_fail() : 0; }

// Before bind: Linux makes the file with the descriptor's mode, other systems ignore it.
static void netio__os_mode_before(int s, int mode)
{
    int code = errno;
    if (fchmod(s, (mode_t)mode) < 0) errno = code;
}

static int netio__os_chmod(const char *path, int mode)
{
    return chmod(path, (mode_t)mode) < 0 ? netio__os_fail() : 0;
}
#endif // NETIO__HAS_UNIX

// --- batches of datagrams, and what comes along with them --------------------------------------

#define NETIO__BATCH 64         // datagrams of one system call
#define NETIO__CONTROL_WORDS 24 // room for the control messages of one, in 64-bit words

// Where the system does not show these structures, or has them under other names.
#if defined(__GLIBC__)
typedef size_t netio__cmsg_size; // of msg_controllen and cmsg_len
#else
typedef socklen_t netio__cmsg_size;
#endif

typedef struct netio__pktinfo6 {
    uint8_t addr[16];
    unsigned ifindex;
} netio__pktinfo6;

typedef struct netio__packet { // one msghdr with what it points to
    netio__iov iov;
    uint64_t control[NETIO__CONTROL_WORDS];
} netio__packet;

#if defined(MSG_CMSG_CLOEXEC)
#define NETIO__RECV_FDS MSG_CMSG_CLOEXEC
#else
#define NETIO__RECV_FDS 0 // macOS: close-on-exec afterwards, a fork may come between
#endif

static void netio__os_packet_recv(struct msghdr *h, netio__packet *k, netio_datagram *m)
{
    netio__os_iov_set(&k->iov, m->data, m->cap < NETIO__IO_MAX ? m->cap : NETIO__IO_MAX);
    netio__os_msg(h, m->peer.raw, sizeof m->peer.raw, &k->iov, 1);
    h->msg_control = k->control;
    h->msg_controllen = sizeof k->control;
}

// A number of one or four bytes, as systems differ about TOS and TTL.
static unsigned netio__os_cmsg_number(const void *data, size_t len)
{
    int value = 0;
    if (len >= sizeof value) memcpy(&value, data, sizeof value);
    else if (len == 1) value = *(const uint8_t *)data;
    return (unsigned)value;
}

// Seconds and a fraction of `unit` nanoseconds: two words of 64 bits, on old 32-bit systems of 32.
static uint64_t netio__os_cmsg_time(const void *data, size_t len, uint64_t unit)
{
    int64_t w[2] = {0, 0};
    int32_t n[2] = {0, 0};
    struct timeval tv;
    if (unit == 1000 && len == sizeof tv) { // microseconds: not Linux
        memcpy(&tv, data, sizeof tv);
        w[0] = (int64_t)tv.tv_sec;
        w[1] = (int64_t)tv.tv_usec;
    } else if (len == sizeof w) {
        memcpy(w, data, sizeof w);
    } else if (len == sizeof n && sizeof(long) == 4) {
        memcpy(n, data, sizeof n);
        w[0] = n[0];
        w[1] = n[1];
    }
    return (uint64_t)w[0] * 1000000000u + (uint64_t)w[1] * unit;
}

// Systems without one of these get a number that no control message has.
#if defined(IP_RECVTOS) && !NETIO__LINUX
#define NETIO__CMSG_TOS IP_RECVTOS
#else
#define NETIO__CMSG_TOS IP_TOS
#endif
#if defined(IP_RECVTTL) && !NETIO__LINUX
#define NETIO__CMSG_TTL IP_RECVTTL
#else
#define NETIO__CMSG_TTL IP_TTL
#endif
#if NETIO__LINUX
#define NETIO__CMSG_TIME SO_TIMESTAMPNS
#define NETIO__CMSG_TIME_UNIT 1
#define NETIO__SOL_UDP 17
#define NETIO__UDP_SEGMENT 103
#define NETIO__UDP_GRO 104
#else
#define NETIO__CMSG_TIME SCM_TIMESTAMP
#define NETIO__CMSG_TIME_UNIT 1000
#define NETIO__SOL_UDP -1
#define NETIO__UDP_GRO -1
#endif

// The destination of an IPv4 datagram: in one message with the interface, or alone.
#if NETIO__LINUX
typedef int netio__pkt_index; // of struct in_pktinfo
#else
typedef unsigned netio__pkt_index;
#endif

#if defined(IP_PKTINFO)
static void netio__os_cmsg_ipv4(netio_datagram *m, int type, const void *data, size_t len)
{
    struct in_pktinfo info;
    if (type != IP_PKTINFO || len < sizeof info) return;
    memcpy(&info, data, sizeof info);
    netio_addr_from_ip(&m->local, &info.ipi_addr, 4, 0);
    m->ifindex = (uint32_t)info.ipi_ifindex;
}

// `ip`: the source, NULL: any. Returns the bytes of the message's data.
static size_t netio__os_cmsg_put_ipv4(struct cmsghdr *c, const void *ip, uint32_t ifindex)
{
    struct in_pktinfo info;
    memset(&info, 0, sizeof info);
    info.ipi_ifindex = (netio__pkt_index)ifindex;
    if (ip) memcpy(&info.ipi_spec_dst, ip, 4);
    c->cmsg_type = IP_PKTINFO;
    memcpy(CMSG_DATA(c), &info, sizeof info);
    return sizeof info;
}
#else
static void netio__os_cmsg_ipv4(netio_datagram *m, int type, const void *data, size_t len)
{
    if (type == IP_RECVDSTADDR && len >= 4) netio_addr_from_ip(&m->local, data, 4, 0);
}

static size_t netio__os_cmsg_put_ipv4(struct cmsghdr *c, const void *ip, uint32_t ifindex)
{
    (void)ifindex;
    if (!ip) return 0;
    c->cmsg_type = IP_RECVDSTADDR; // FreeBSD calls it IP_SENDSRCADDR, the same number
    memcpy(CMSG_DATA(c), ip, 4);
    return 4;
}
#endif

// Whether a message carries descriptors: SCM_RIGHTS, and Linux' SCM_PIDFD, asked for by an option.
static bool netio__os_cmsg_has_fds(const struct cmsghdr *c)
{
    return c->cmsg_level == SOL_SOCKET &&
           (c->cmsg_type == SCM_RIGHTS || (NETIO__LINUX && c->cmsg_type == 4));
}

// Descriptors that nobody asked for, which a Unix socket may bring.
static void netio__os_cmsg_close(const void *data, size_t len)
{
    for (size_t i = 0; i < len / sizeof(int); i++) {
        int fd;
        memcpy(&fd, (const char *)data + i * sizeof fd, sizeof fd);
        netio__os_close(fd);
    }
}

static void netio__os_cmsg_take(netio_datagram *m, const struct cmsghdr *c, const void *data,
                                size_t len)
{
    netio__pktinfo6 info6;
    int level = c->cmsg_level, type = c->cmsg_type;
    if (level == IPPROTO_IP) {
        if (type == NETIO__CMSG_TOS) m->tos = (uint8_t)netio__os_cmsg_number(data, len);
        else if (type == NETIO__CMSG_TTL) m->ttl = (uint8_t)netio__os_cmsg_number(data, len);
        else netio__os_cmsg_ipv4(m, type, data, len);
    } else if (level == IPPROTO_IPV6) {
        if (type == IPV6_TCLASS) m->tos = (uint8_t)netio__os_cmsg_number(data, len);
        if (type == IPV6_HOPLIMIT) m->ttl = (uint8_t)netio__os_cmsg_number(data, len);
        if (type != IPV6_PKTINFO || len < sizeof info6) return;
        memcpy(&info6, data, sizeof info6);
        netio_addr_from_ip(&m->local, info6.addr, 16, 0);
        netio_addr_unmap(&m->local);
        m->ifindex = (uint32_t)info6.ifindex;
    } else if (netio__os_cmsg_has_fds(c)) {
        netio__os_cmsg_close(data, len);
    } else if (level == SOL_SOCKET && type == NETIO__CMSG_TIME) {
        m->time_ns = netio__os_cmsg_time(data, len, NETIO__CMSG_TIME_UNIT);
    } else if (level == NETIO__SOL_UDP && type == NETIO__UDP_GRO) {
        m->segment = netio__os_cmsg_number(data, len);
    }
}

// The bytes that are there: BSD leaves the length of a message that was cut (MSG_CTRUNC) as it was.
static size_t netio__os_cmsg_data_len(const struct msghdr *h, const struct cmsghdr *c)
{
    size_t at = (size_t)((const char *)c - (const char *)h->msg_control);
    size_t room = (size_t)h->msg_controllen - at;
    size_t len = (size_t)c->cmsg_len < room ? (size_t)c->cmsg_len : room;
    return len > CMSG_LEN(0) ? len - CMSG_LEN(0) : 0;
}

// FreeBSD has disposed of descriptors already whose message it cut.
static bool netio__os_cmsg_gone(const struct msghdr *h, const struct cmsghdr *c)
{
    return NETIO__FREEBSD && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
           (h->msg_flags & MSG_CTRUNC);
}

// CMSG_NXTHDR without its warnings in some C libraries.
static struct cmsghdr *netio__os_cmsg_next(const struct msghdr *h, struct cmsghdr *c)
{
    size_t at = (size_t)((char *)c - (char *)h->msg_control);
    at += CMSG_SPACE(netio__os_cmsg_data_len(h, c));
    if (at + CMSG_LEN(0) > (size_t)h->msg_controllen) return NULL;
    return (struct cmsghdr *)(void *)((char *)h->msg_control + at);
}

// `n`: what the system says was received, the true length on Linux. What is cut of the control
// messages (MSG_CTRUNC) leaves its fields zero.
static void netio__os_packet_done(struct msghdr *h, netio_datagram *m, size_t n)
{
    m->full = (h->msg_flags & MSG_TRUNC) && n <= m->cap ? m->cap + 1 : n;
    m->truncated = m->full > m->cap;
    m->len = m->truncated ? m->cap : n;
    m->peer.len = (uint32_t)h->msg_namelen;
    if (m->peer.len > sizeof m->peer.raw) m->peer.len = sizeof m->peer.raw;
    m->peer.dual = 0;
    netio_addr_unmap(&m->peer);
    m->local.len = 0;
    m->ifindex = m->segment = 0;
    m->time_ns = 0;
    m->tos = m->ttl = 0;
    if (h->msg_controllen == 0) return;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = netio__os_cmsg_next(h, c))
        if (!netio__os_cmsg_gone(h, c))
            netio__os_cmsg_take(m, c, CMSG_DATA(c), netio__os_cmsg_data_len(h, c));
}

static size_t netio__os_cmsg_put_ipv6(struct cmsghdr *c, const void *ip, uint32_t ifindex)
{
    netio__pktinfo6 info;
    memset(&info, 0, sizeof info);
    info.ifindex = (unsigned)ifindex;
    if (ip) memcpy(info.addr, ip, 16);
    c->cmsg_type = IPV6_PKTINFO;
    memcpy(CMSG_DATA(c), &info, sizeof info);
    return sizeof info;
}

#if NETIO__LINUX
static size_t netio__os_cmsg_put_segment(struct cmsghdr *c, uint32_t segment)
{
    uint16_t size = (uint16_t)segment;
    c->cmsg_level = NETIO__SOL_UDP;
    c->cmsg_type = NETIO__UDP_SEGMENT;
    memcpy(CMSG_DATA(c), &size, sizeof size);
    return sizeof size;
}
#else
static size_t netio__os_cmsg_put_segment(struct cmsghdr *c, uint32_t segment)
{
    (void)c, (void)segment; // cut by hand: see netio__send_segments
    return 0;
}
#endif

static size_t netio__os_cmsg_seal(struct cmsghdr *c, size_t len)
{
    c->cmsg_len = (netio__cmsg_size)CMSG_LEN(len);
    return len ? CMSG_SPACE(len) : 0;
}

// The control messages of a datagram to send: source and way out, segment size. A group's or a
// broadcast address, as a received datagram may have it, is no source.
static void netio__os_packet_control(int s, struct msghdr *h, netio__packet *k,
                                     const netio_datagram *m)
{
    int os_family = 0, family = netio_addr_family(m->local.len ? &m->local : &m->peer);
    if (family == 0 && netio__os_family(s, &os_family) == 0) // connected
        family = os_family == AF_INET ? NETIO_IPV4 : os_family == AF_INET6 ? NETIO_IPV6 : 0;
    unsigned no_source = NETIO_ADDR_MULTICAST | NETIO_ADDR_BROADCAST | NETIO_ADDR_ANY;
    bool source = m->local.len && !(netio_addr_class(&m->local) & no_source);
    const void *ip = source ? netio_addr_ip(&m->local).data : NULL;
    struct cmsghdr *c = (struct cmsghdr *)(void *)k->control;
    size_t used = 0;
    memset(k->control, 0, sizeof k->control);
    if ((source || m->ifindex) && family == NETIO_IPV4) {
        c->cmsg_level = IPPROTO_IP;
        used = netio__os_cmsg_seal(c, netio__os_cmsg_put_ipv4(c, ip, m->ifindex));
    } else if ((source || m->ifindex) && family == NETIO_IPV6) {
        c->cmsg_level = IPPROTO_IPV6;
        used = netio__os_cmsg_seal(c, netio__os_cmsg_put_ipv6(c, ip, m->ifindex));
    }
    if (m->segment && m->segment < m->len) {
        c = (struct cmsghdr *)(void *)((char *)k->control + used);
        used += netio__os_cmsg_seal(c, netio__os_cmsg_put_segment(c, m->segment));
    }
    h->msg_control = used ? k->control : NULL;
    h->msg_controllen = (netio__cmsg_size)used;
}

static void netio__os_packet_send(int s, struct msghdr *h, netio__packet *k,
                                  const netio_datagram *m)
{
    union {
        const uint64_t *in;
        uint64_t *out;
    } u; // msghdr has no const, sendmsg does not write
    u.in = m->peer.raw;
    netio__os_iov_set(&k->iov, m->data, m->len);
    netio__os_msg(h, m->peer.len ? u.out : NULL, m->peer.len, &k->iov, 1);
    if (m->local.len || m->ifindex || m->segment) netio__os_packet_control(s, h, k, m);
}

#if NETIO__LINUX
typedef struct netio__mmsg { // struct mmsghdr, which glibc shows under _GNU_SOURCE only
    struct msghdr h;
    unsigned len;
} netio__mmsg;

static long netio__os_recvmmsg(int s, netio__mmsg *v, size_t count, int flags)
{
    long n;
    do n = syscall(SYS_recvmmsg, s, v, (unsigned)count, flags, NULL);
    while (n < 0 && errno == EINTR);
    return n;
}

// At most NETIO__BATCH; without waiting. Returns how many, or an error.
static int netio__os_recv_batch(int s, netio_datagram *m, size_t count)
{
    netio__mmsg v[NETIO__BATCH];
    netio__packet k[NETIO__BATCH];
    long n;
    for (size_t i = 0; i < count; i++) netio__os_packet_recv(&v[i].h, &k[i], &m[i]);
    n = netio__os_recvmmsg(s, v, count, MSG_DONTWAIT | MSG_TRUNC | NETIO__RECV_FDS);
    // A packet socket knows no such flag; nor do descriptors come over it.
    if (n < 0 && errno == EINVAL) n = netio__os_recvmmsg(s, v, count, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0) return netio__os_fail();
    for (long i = 0; i < n; i++) netio__os_packet_done(&v[i].h, &m[i], v[i].len);
    return (int)n;
}

static int netio__os_send_batch(int s, const netio_datagram *m, size_t count)
{
    netio__mmsg v[NETIO__BATCH];
    netio__packet k[NETIO__BATCH];
    long n;
    if (count == 1 && !m->local.len && !m->ifindex && !m->segment) { // cheaper for one
        const void *peer = m->peer.len ? m->peer.raw : NULL;
        return netio__os_sendto(s, m->data, m->len, peer, m->peer.len) < 0 ? netio__os_fail() : 1;
    }
    for (size_t i = 0; i < count; i++) netio__os_packet_send(s, &v[i].h, &k[i], &m[i]);
    do n = syscall(SYS_sendmmsg, s, v, (unsigned)count, MSG_DONTWAIT | NETIO__NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? netio__os_fail() : (int)n;
}
#else
static int netio__os_recv_batch(int s, netio_datagram *m, size_t count)
{
    size_t n = 0;
    for (; n < count; n++) {
        struct msghdr h;
        netio__packet k;
        ssize_t r;
        netio__os_packet_recv(&h, &k, &m[n]);
        do r = recvmsg(s, &h, MSG_DONTWAIT | NETIO__RECV_FDS);
        while (r < 0 && errno == EINTR);
        if (r < 0 && n == 0) return netio__os_fail();
        if (r < 0) break;
        netio__os_packet_done(&h, &m[n], (size_t)r);
    }
    return (int)n;
}

static int netio__os_send_batch(int s, const netio_datagram *m, size_t count)
{
    size_t n = 0;
    for (; n < count; n++) {
        struct msghdr h;
        netio__packet k;
        ssize_t r;
        netio__os_packet_send(s, &h, &k, &m[n]);
        do r = sendmsg(s, &h, MSG_DONTWAIT | NETIO__NOSIGNAL);
        while (r < 0 && errno == EINTR);
        if (r < 0 && n == 0) return netio__os_send_fail();
        if (r < 0) break;
    }
    return (int)n;
}
#endif

// --- multicast ---------------------------------------------------------------------------------

// Linux hands a socket the groups that others on this machine have joined, unless told not to.
#if defined(IP_MULTICAST_ALL)
static void netio__os_own_groups(int s)
{
    int off = 0, code = errno;
    setsockopt(s, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof off);
    setsockopt(s, IPPROTO_IPV6, 29 /* IPV6_MULTICAST_ALL */, &off, sizeof off);
    errno = code;
}
#else
static void netio__os_own_groups(int s) { (void)s; }
#endif

// --- descriptors and credentials ---------------------------------------------------------------

#if NETIO__HAS_UNIX
#define NETIO__FDS_ROOM 512 // most that a system puts into one message: macOS; Linux 253

#if defined(MSG_CMSG_CLOEXEC)
static bool netio__os_fd_taken(int fd) { return fd >= 0; }
#else
static bool netio__os_fd_taken(int fd) { return netio__os_set_inheritable(fd, false) == 0; }
#endif

typedef struct netio__fd_packet {
    netio__iov iov;
    uint64_t control[(64 + NETIO__FDS_ROOM * sizeof(int)) / sizeof(uint64_t)];
} netio__fd_packet;

static ptrdiff_t netio__os_send_fds(int s, const void *data, size_t len, const int *fds,
                                    size_t count)
{
    netio__fd_packet k;
    struct msghdr h;
    ssize_t n;
    struct cmsghdr *c = (struct cmsghdr *)(void *)k.control;
    memset(&k, 0, sizeof k);
    netio__os_iov_set(&k.iov, data, len);
    netio__os_msg(&h, NULL, 0, &k.iov, 1);
    if (count) {
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = (netio__cmsg_size)CMSG_LEN(count * sizeof *fds);
        memcpy(CMSG_DATA(c), fds, count * sizeof *fds);
        h.msg_control = k.control;
        h.msg_controllen = (netio__cmsg_size)CMSG_SPACE(count * sizeof *fds);
    }
    do n = sendmsg(s, &h, MSG_DONTWAIT | NETIO__NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? netio__os_send_fail() : (ptrdiff_t)n;
}

// All descriptors of the message are taken in; those that do not fit into `fds` are closed.
static ptrdiff_t netio__os_recv_fds(int s, void *buf, size_t cap, int *fds, size_t *count)
{
    netio__fd_packet k;
    struct msghdr h;
    ssize_t n;
    size_t room = *count, got = 0;
    netio__os_iov_set(&k.iov, buf, cap);
    netio__os_msg(&h, NULL, 0, &k.iov, 1);
    h.msg_control = k.control;
    h.msg_controllen = sizeof k.control;
    *count = 0;
    do n = recvmsg(s, &h, MSG_DONTWAIT | NETIO__RECV_FDS);
    while (n < 0 && errno == EINTR);
    if (n < 0) return netio__os_fail();
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = netio__os_cmsg_next(&h, c)) {
        if (!netio__os_cmsg_has_fds(c) || netio__os_cmsg_gone(&h, c)) continue;
        if (c->cmsg_type != SCM_RIGHTS) {
            netio__os_cmsg_close(CMSG_DATA(c), netio__os_cmsg_data_len(&h, c));
            continue;
        }
        for (size_t i = 0; i < netio__os_cmsg_data_len(&h, c) / sizeof(int); i++, got++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (got < room && netio__os_fd_taken(fd)) fds[(*count)++] = fd;
            else netio__os_close(fd);
        }
    }
    return got > room || (h.msg_flags & MSG_CTRUNC) ? (ptrdiff_t)NETIO_EMSGSIZE : (ptrdiff_t)n;
}

#if NETIO__LINUX
static int netio__os_peer_cred(int s, netio_cred *out)
{
    struct { // struct ucred, which glibc shows under _GNU_SOURCE only
        int pid;
        unsigned uid, gid;
    } c;
    size_t len = sizeof c;
    int err = netio__os_getopt(s, SOL_SOCKET, SO_PEERCRED, &c, &len);
    if (err < 0) return err;
    out->pid = c.pid > 0 ? c.pid : -1;
    out->uid = (int64_t)c.uid;
    out->gid = (int64_t)c.gid;
    return c.uid == UINT32_MAX ? (int)NETIO_ENOTCONN : 0;
}
#else
#if defined(LOCAL_PEERPID)
static int64_t netio__os_peer_pid(int s)
{
    pid_t pid;
    socklen_t len = sizeof pid;
    return getsockopt(s, 0 /* SOL_LOCAL */, LOCAL_PEERPID, &pid, &len) < 0 ? -1 : (int64_t)pid;
}
#else
static int64_t netio__os_peer_pid(int s)
{
    (void)s;
    return -1;
}
#endif

static int netio__os_peer_cred(int s, netio_cred *out)
{
    uid_t uid;
    gid_t gid;
    if (getpeereid(s, &uid, &gid) < 0) return netio__os_fail();
    out->pid = netio__os_peer_pid(s);
    out->uid = (int64_t)uid;
    out->gid = (int64_t)gid;
    return 0;
}
#endif
#endif // NETIO__HAS_UNIX

// --- interfaces --------------------------------------------------------------------------------

#if NETIO__HAS_SA_LEN
static size_t netio__os_sa_len(const struct sockaddr *sa, size_t whole)
{
    return sa->sa_len < whole ? sa->sa_len : whole;
}
#else
static size_t netio__os_sa_len(const struct sockaddr *sa, size_t whole)
{
    (void)sa;
    return whole;
}
#endif

// BSD leaves the family of a netmask out and cuts its zeros off.
static uint8_t netio__os_mask_bits(const struct sockaddr *mask, int family)
{
    size_t at = family == AF_INET6 ? offsetof(struct sockaddr_in6, sin6_addr)
                                   : offsetof(struct sockaddr_in, sin_addr);
    size_t end = at + (family == AF_INET6 ? 16 : 4);
    uint8_t bits = 0;
    if (!mask) return 0;
    for (end = netio__os_sa_len(mask, end); at < end; at++)
        for (uint8_t b = ((const uint8_t *)mask)[at]; b & 0x80; b = (uint8_t)(b << 1)) bits++;
    return bits;
}

static size_t netio__os_sockaddr_len(const struct sockaddr *sa)
{
    return sa->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
           : sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                       : 0;
}

static bool netio__os_interface(netio_interface *out, const struct ifaddrs *i)
{
    size_t len = i->ifa_addr ? netio__os_sockaddr_len(i->ifa_addr) : 0;
    memset(out, 0, sizeof *out);
    if (len == 0 || netio_addr_from_sockaddr(&out->addr, i->ifa_addr, len) < 0) return false;
    if (i->ifa_flags & IFF_UP) out->flags |= NETIO_IF_UP;
    if (i->ifa_flags & IFF_LOOPBACK) out->flags |= NETIO_IF_LOOPBACK;
    if (i->ifa_flags & IFF_BROADCAST) out->flags |= NETIO_IF_BROADCAST;
    if (i->ifa_flags & IFF_MULTICAST) out->flags |= NETIO_IF_MULTICAST;
    out->index = netio__os_if_index(i->ifa_name);
    out->prefix_bits = netio__os_mask_bits(i->ifa_netmask, i->ifa_addr->sa_family);
    netio__text_z(out->name, sizeof out->name, 0, i->ifa_name);
    if ((i->ifa_flags & IFF_BROADCAST) && i->ifa_broadaddr && i->ifa_addr->sa_family == AF_INET)
        netio_addr_from_sockaddr(&out->broadcast, i->ifa_broadaddr, len);
    // glibc gives the address itself where there is none.
    if (netio_addr_equal(&out->broadcast, &out->addr))
        memset(&out->broadcast, 0, sizeof(netio_addr));
    return true;
}

static ptrdiff_t netio__os_interfaces(netio_interface *out, size_t cap, size_t skip)
{
    struct ifaddrs *list = NULL;
    size_t n = 0;
    if (getifaddrs(&list) < 0) return netio__os_fail();
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        netio_interface one;
        if (!netio__os_interface(&one, i)) continue;
        if (n >= skip && n - skip < cap) out[n - skip] = one;
        n++;
    }
    freeifaddrs(list);
    return (ptrdiff_t)n;
}

// --- TCP's own view ----------------------------------------------------------------------------

#if (NETIO__APPLE && defined(TCP_CONNECTION_INFO)) || (NETIO__FREEBSD && defined(TCP_INFO))
static int netio__bsd_tcp_state(unsigned state)
{
    static const int states[] = {
        NETIO_TCP_CLOSED,      NETIO_TCP_LISTEN,     NETIO_TCP_SYN_SENT,   NETIO_TCP_SYN_RECEIVED,
        NETIO_TCP_ESTABLISHED, NETIO_TCP_CLOSE_WAIT, NETIO_TCP_FIN_WAIT_1, NETIO_TCP_CLOSING,
        NETIO_TCP_LAST_ACK,    NETIO_TCP_FIN_WAIT_2, NETIO_TCP_TIME_WAIT};
    return state < sizeof states / sizeof states[0] ? states[state] : (int)NETIO_TCP_CLOSED;
}
#endif

#if NETIO__LINUX
// struct tcp_info of the kernel, which headers show in part. It grows at its end: what an old
// kernel does not fill in stays zero.
typedef struct netio__linux_tcp_info {
    uint8_t state, ca_state, retransmits, probes, backoff, options, wscale, flags;
    uint32_t rto, ato, snd_mss, rcv_mss, unacked, sacked, lost, retrans, fackets, last_data_sent,
        last_ack_sent, last_data_recv, last_ack_recv, pmtu, rcv_ssthresh, rtt, rttvar, snd_ssthresh,
        snd_cwnd, advmss, reordering, rcv_rtt, rcv_space, total_retrans;
    uint64_t pacing_rate, max_pacing_rate, bytes_acked, bytes_received;
    uint32_t segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out;
    uint64_t delivery_rate, busy_time, rwnd_limited, sndbuf_limited;
    uint32_t delivered, delivered_ce;
    uint64_t bytes_sent, bytes_retrans;
} netio__linux_tcp_info;

static int netio__os_tcp_info(int s, netio_tcp_info *out)
{
    static const int states[] = {
        NETIO_TCP_CLOSED,      NETIO_TCP_ESTABLISHED, NETIO_TCP_SYN_SENT,  NETIO_TCP_SYN_RECEIVED,
        NETIO_TCP_FIN_WAIT_1,  NETIO_TCP_FIN_WAIT_2,  NETIO_TCP_TIME_WAIT, NETIO_TCP_CLOSED,
        NETIO_TCP_CLOSE_WAIT,  NETIO_TCP_LAST_ACK,    NETIO_TCP_LISTEN,    NETIO_TCP_CLOSING,
        NETIO_TCP_SYN_RECEIVED};
    netio__linux_tcp_info i;
    size_t len = sizeof i;
    memset(&i, 0, sizeof i);
    int err = netio__os_getopt(s, IPPROTO_TCP, TCP_INFO, &i, &len);
    if (err < 0) return err;
    out->state = i.state < sizeof states / sizeof states[0] ? states[i.state] : NETIO_TCP_CLOSED;
    out->rtt_us = i.rtt;
    out->rtt_var_us = i.rttvar;
    out->mss = i.snd_mss;
    out->cwnd = i.snd_cwnd;
    out->retransmits = i.total_retrans;
    out->unacked = i.unacked;
    out->bytes_sent = i.bytes_sent ? i.bytes_sent : i.bytes_acked;
    out->bytes_received = i.bytes_received;
    return 0;
}
#elif NETIO__APPLE && defined(TCP_CONNECTION_INFO)
static int netio__os_tcp_info(int s, netio_tcp_info *out)
{
    struct tcp_connection_info i;
    size_t len = sizeof i;
    int err = netio__os_getopt(s, IPPROTO_TCP, TCP_CONNECTION_INFO, &i, &len);
    if (err < 0) return err;
    out->state = netio__bsd_tcp_state(i.tcpi_state);
    out->rtt_us = i.tcpi_srtt * 1000u;
    out->rtt_var_us = i.tcpi_rttvar * 1000u;
    out->mss = i.tcpi_maxseg;
    out->cwnd = i.tcpi_maxseg ? i.tcpi_snd_cwnd / i.tcpi_maxseg : 0;
    out->retransmits = (uint32_t)i.tcpi_txretransmitpackets;
    out->bytes_sent = i.tcpi_txbytes;
    out->bytes_received = i.tcpi_rxbytes;
    return 0;
}
#elif NETIO__FREEBSD && defined(TCP_INFO)
static int netio__os_tcp_info(int s, netio_tcp_info *out)
{
    struct tcp_info i;
    size_t len = sizeof i;
    int err = netio__os_getopt(s, IPPROTO_TCP, TCP_INFO, &i, &len);
    if (err < 0) return err;
    out->state = netio__bsd_tcp_state(i.tcpi_state);
    out->rtt_us = i.tcpi_rtt;
    out->rtt_var_us = i.tcpi_rttvar;
    out->mss = i.tcpi_snd_mss;
    out->cwnd = i.tcpi_snd_mss ? i.tcpi_snd_cwnd / i.tcpi_snd_mss : 0;
    out->retransmits = i.tcpi_snd_rexmitpack;
    return 0;
}
#else
static int netio__os_tcp_info(int s, netio_tcp_info *out)
{
    (void)s, (void)out;
    return NETIO_ENOTSUP;
}
#endif

// --- waiting -----------------------------------------------------------------------------------

typedef struct netio__os_waiter {
    netio_socket socket;
    unsigned events, got; // NETIO_EV_*
} netio__os_waiter;

#define NETIO__WAITERS 33 // those of a race, and one more

static unsigned netio__os_poll_events(unsigned events)
{
    unsigned e = 0;
    if (events & NETIO_EV_READ) e |= POLLIN;
    if (events & NETIO_EV_WRITE) e |= POLLOUT;
    return e;
}

// An error or a hang-up makes ready whatever was asked: the call that follows finds out.
static unsigned netio__os_poll_got(unsigned revents, unsigned events)
{
    unsigned got = 0;
    if (revents & (POLLIN | POLLHUP | POLLERR | POLLPRI)) got |= NETIO_EV_READ;
    if (revents & (POLLOUT | POLLHUP | POLLERR)) got |= NETIO_EV_WRITE;
    got &= events;
    if (got && (revents & POLLHUP)) got |= NETIO_EV_HINT_EOF;
    if (got && (revents & POLLERR)) got |= NETIO_EV_HINT_ERROR;
    return got;
}

// Once, without a deadline of its own: 0 also when a signal came.
static int netio__os_wait(netio__os_waiter *w, size_t count, int timeout_ms)
{
    struct pollfd fds[NETIO__WAITERS];
    for (size_t i = 0; i < count; i++) {
        fds[i].fd = w[i].socket;
        fds[i].events = (short)netio__os_poll_events(w[i].events);
        fds[i].revents = 0;
        w[i].got = 0;
    }
    int n = poll(fds, (nfds_t)count, timeout_ms);
    if (n < 0) return errno == EINTR ? 0 : netio__os_fail();
    int ready = 0;
    for (size_t i = 0; n > 0 && i < count; i++) {
        unsigned revents = (unsigned)(unsigned short)fds[i].revents;
        if (revents & POLLNVAL) return NETIO_EBADF;
        w[i].got = netio__os_poll_got(revents, w[i].events);
        if (w[i].got) ready++;
    }
    return ready;
}

#if NETIO__HAS_POLLER
// Tells one open description from another that took over its number, in 16 bits; 0 where the system
// numbers its sockets alike. NETIO_EBADF: not open.
static int netio__os_identity(int fd, uint16_t *out)
{
    struct stat st;
    *out = 0;
    if (fstat(fd, &st) < 0) // EOVERFLOW on 32-bit systems: it is open, but its numbers do not fit
        return errno == EOVERFLOW ? 0 : netio__os_fail();
    uint64_t x = (uint64_t)st.st_ino * 31u + (uint64_t)st.st_dev;
    *out = (uint16_t)(x ^ (x >> 16) ^ (x >> 32));
    return 0;
}
#endif

// --- threads: for lookups with a bounded time --------------------------------------------------

#if NETIO__HAS_THREADS
typedef pthread_mutex_t netio__os_mutex;
typedef pthread_cond_t netio__os_cond;
#define NETIO__OS_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER

static void netio__os_lock(netio__os_mutex *m) { pthread_mutex_lock(m); }

static void netio__os_unlock(netio__os_mutex *m) { pthread_mutex_unlock(m); }

static void netio__os_sync_close(netio__os_mutex *m, netio__os_cond *c)
{
    pthread_cond_destroy(c);
    pthread_mutex_destroy(m);
}

static void netio__os_notify(netio__os_cond *c) { pthread_cond_signal(c); }

#if NETIO__APPLE
static int netio__os_sync_open(netio__os_mutex *m, netio__os_cond *c)
{
    pthread_mutex_init(m, NULL);
    pthread_cond_init(c, NULL);
    return 0;
}

static void netio__os_wait_notify(netio__os_mutex *m, netio__os_cond *c, int timeout_ms)
{
    struct timespec left;
    left.tv_sec = timeout_ms / 1000;
    left.tv_nsec = (long)(timeout_ms % 1000) * 1000000;
    pthread_cond_timedwait_relative_np(c, m, &left);
}
#else
// On the monotonic clock, so that jumps of the wall clock do not matter.
static int netio__os_sync_open(netio__os_mutex *m, netio__os_cond *c)
{
    pthread_condattr_t attr;
    int code = pthread_condattr_init(&attr);
    if (code == 0) {
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        code = pthread_cond_init(c, &attr);
        pthread_condattr_destroy(&attr);
    }
    if (code == 0) code = pthread_mutex_init(m, NULL);
    return code == 0 ? 0 : netio__os_map(code);
}

static void netio__os_wait_notify(netio__os_mutex *m, netio__os_cond *c, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + (uint64_t)timeout_ms * 1000000u;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_cond_timedwait(c, m, &until);
}
#endif

// Detached, with every signal blocked: signals are for threads that know of them.
static int netio__os_thread(void *(*run)(void *arg), void *arg)
{
    pthread_t id;
    pthread_attr_t attr;
    sigset_t all, old;
    int code = pthread_attr_init(&attr);
    if (code == 0) {
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        sigfillset(&all);
        netio__os_sigmask(SIG_SETMASK, &all, &old);
        code = pthread_create(&id, &attr, run, arg);
        netio__os_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
    }
    if (code == 0) return 0;
    errno = code;
    return code == EAGAIN ? NETIO_EBUSY : netio__os_fail();
}

typedef void *netio__os_thread_result;
#define NETIO__OS_THREAD_CALL
#define NETIO__OS_THREAD_DONE NULL
#endif // NETIO__HAS_THREADS

#if NETIO__HAS_HELPERS
#if defined(__GLIBC__) && !defined(__LP64__)
#if !defined(__USE_LARGEFILE64)
ssize_t pwrite64(int file, const void *data, size_t len, int64_t off);
#endif
#define NETIO__PWRITE64 pwrite64
#else
#define NETIO__PWRITE64 pwrite
#endif

// At an offset. NETIO_ENOTSUP: it has no positions. A full disk is NETIO_EIO, as NETIO_ENOSPC is
// about buffers.
static ptrdiff_t netio__os_write_file(int file, const void *data, size_t len, uint64_t off)
{
    netio__os_off at = (netio__os_off)off;
    ssize_t n;
    if ((uint64_t)at != off || at < 0) return NETIO_EINVAL;
    do n = NETIO__PWRITE64(file, data, len, at);
    while (n < 0 && errno == EINTR);
    if (n >= 0) return (ptrdiff_t)n;
    return errno == ESPIPE ? (int)NETIO_ENOTSUP : errno == ENOSPC ? NETIO_EIO : netio__os_fail();
}
#endif // NETIO__HAS_HELPERS

// --- random numbers that nobody can predict ----------------------------------------------------

#if NETIO__HAS_WEBSOCKET
#if NETIO__BSD
static int netio__os_random(void *buf, size_t len)
{
    arc4random_buf(buf, len); // cannot fail
    return 0;
}
#else
static ptrdiff_t netio__os_random_file(uint8_t *buf, size_t len) // for kernels without the call
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ptrdiff_t n = read(fd, buf, len);
    netio__os_close(fd);
    return n;
}

#if defined(SYS_getrandom)
static ptrdiff_t netio__os_random_call(uint8_t *buf, size_t len)
{
    return (ptrdiff_t)syscall(SYS_getrandom, buf, len, 0);
}
#else
static ptrdiff_t netio__os_random_call(uint8_t *buf, size_t len)
{
    (void)buf, (void)len;
    errno = ENOSYS;
    return -1;
}
#endif

static int netio__os_random(void *buf, size_t len)
{
    uint8_t *p = (uint8_t *)buf;
    for (size_t at = 0; at < len;) {
        ptrdiff_t n = netio__os_random_call(p + at, len - at);
        if (n < 0 && errno == ENOSYS) n = netio__os_random_file(p + at, len - at);
        if (n < 0 && errno != EINTR) return netio__os_fail();
        if (n > 0) at += (size_t)n;
    }
    return 0;
}
#endif
#endif // NETIO__HAS_WEBSOCKET

// --- names -------------------------------------------------------------------------------------

static int netio__os_map_eai(int code)
{
    switch (code) {
    case 0: return 0;
    case EAI_AGAIN:
    case EAI_FAIL: return NETIO_EAI_AGAIN;
    case EAI_MEMORY: return NETIO_ENOMEM;
    case EAI_FAMILY: return NETIO_EAFNOSUPPORT;
    case EAI_SERVICE:
    case EAI_SOCKTYPE: return NETIO_ENOENT;
    case EAI_BADFLAGS: return NETIO_EINVAL;
    case EAI_SYSTEM: return errno == EMFILE || errno == ENFILE ? NETIO_EMFILE : NETIO_EAI_AGAIN;
    default: return NETIO_EAI_NONAME; // EAI_NONAME, and EAI_NODATA where it exists
    }
}

#endif // !NETIO__WINDOWS

//================================================================================================
// >>os-windows.c                                                                     the OS seam
//
// The same list as >>os-posix.c over Winsock. Windows 7 and newer, and Wine. What a header or an
// old system lacks is defined here, looked up at run time, or tried once.
//================================================================================================

#if NETIO__WINDOWS

// Numbers of Windows' own headers, which not every compiler brings.
#define NETIO__SIO_UDP_CONNRESET _WSAIOW(IOC_VENDOR, 12)
#define NETIO__SIO_UDP_NETRESET _WSAIOW(IOC_VENDOR, 15)
#define NETIO__SIO_KEEPALIVE_VALS _WSAIOW(IOC_VENDOR, 4)
#define NETIO__SIO_TCP_INITIAL_RTO _WSAIOW(IOC_VENDOR, 17)
#define NETIO__FLAG_NO_HANDLE_INHERIT 0x80
#define NETIO__TAG_AF_UNIX 0x80000023u

static int netio__os_error(void) { return WSAGetLastError(); }

static void netio__os_set_error(int code) { WSASetLastError(code); }

// Winsock's codes, and those of file calls. WSAENOTSOCK is what a closed socket gives.
// clang-format off
static const int netio__os_errors[][2] = {
    {WSAEWOULDBLOCK, NETIO_EAGAIN}, {WSAETIMEDOUT, NETIO_ETIMEDOUT},
    {WSAECANCELLED, NETIO_ECANCELED}, {WSA_E_CANCELLED, NETIO_ECANCELED},
    {WSA_OPERATION_ABORTED, NETIO_ECANCELED}, {WSAEINPROGRESS, NETIO_EINPROGRESS},
    {WSAEALREADY, NETIO_EINPROGRESS}, {WSAEINVAL, NETIO_EINVAL}, {WSAEFAULT, NETIO_EINVAL},
    {WSAEPROTOTYPE, NETIO_EINVAL}, {WSAEBADF, NETIO_EBADF}, {WSA_INVALID_HANDLE, NETIO_EBADF},
    {WSAENOTSOCK, NETIO_EBADF}, {WSAEOPNOTSUPP, NETIO_ENOTSUP}, {WSAENOPROTOOPT, NETIO_ENOTSUP},
    {WSAEPROTONOSUPPORT, NETIO_ENOTSUP}, {WSAESOCKTNOSUPPORT, NETIO_ENOTSUP},
    {WSAVERNOTSUPPORTED, NETIO_ENOTSUP}, {ERROR_NOT_SUPPORTED, NETIO_ENOTSUP},
    {ERROR_CALL_NOT_IMPLEMENTED, NETIO_ENOTSUP}, {ERROR_FILE_NOT_FOUND, NETIO_ENOENT},
    {ERROR_PATH_NOT_FOUND, NETIO_ENOENT}, {WSAENOTCONN, NETIO_ENOTCONN},
    {WSAEDESTADDRREQ, NETIO_ENOTCONN}, {WSAEISCONN, NETIO_EISCONN}, {WSAESHUTDOWN, NETIO_EPIPE},
    {WSAEDISCON, NETIO_EOF}, {WSAENAMETOOLONG, NETIO_ENAMETOOLONG},
    {WSA_NOT_ENOUGH_MEMORY, NETIO_ENOMEM}, {WSAENOBUFS, NETIO_ENOBUFS},
    {WSAEMFILE, NETIO_EMFILE}, {WSAEPROCLIM, NETIO_EMFILE},
    {ERROR_TOO_MANY_OPEN_FILES, NETIO_EMFILE},
    {WSAEMSGSIZE, NETIO_EMSGSIZE}, {WSAEACCES, NETIO_EACCES}, {ERROR_ACCESS_DENIED, NETIO_EACCES},
    {WSAEADDRINUSE, NETIO_EADDRINUSE}, {WSAEADDRNOTAVAIL, NETIO_EADDRNOTAVAIL},
    {WSAEAFNOSUPPORT, NETIO_EAFNOSUPPORT}, {WSAEPFNOSUPPORT, NETIO_EAFNOSUPPORT},
    {WSAHOST_NOT_FOUND, NETIO_EAI_NONAME}, {WSANO_DATA, NETIO_EAI_NONAME},
    {WSATRY_AGAIN, NETIO_EAI_AGAIN}, {WSANO_RECOVERY, NETIO_EAI_AGAIN},
    {WSATYPE_NOT_FOUND, NETIO_ENOENT}, {WSAECONNREFUSED, NETIO_ECONNREFUSED},
    {WSAECONNRESET, NETIO_ECONNRESET}, {WSAENETRESET, NETIO_ECONNRESET},
    {ERROR_NETNAME_DELETED, NETIO_ECONNRESET}, {WSAECONNABORTED, NETIO_ECONNABORTED},
    {WSAEHOSTUNREACH, NETIO_EHOSTUNREACH}, {WSAEHOSTDOWN, NETIO_EHOSTUNREACH},
    {WSAENETUNREACH, NETIO_ENETUNREACH}, {WSAENETDOWN, NETIO_ENETDOWN},
};
// clang-format on

static int netio__os_map(int code)
{
    if (code == 0) return 0;
    for (size_t i = 0; i < sizeof netio__os_errors / sizeof netio__os_errors[0]; i++)
        if (netio__os_errors[i][0] == code) return netio__os_errors[i][1];
    return NETIO_EIO;
}

static int netio__os_fail(void)
{
    int err = netio__os_map(WSAGetLastError());
    return err < 0 ? err : NETIO_EIO; // always an error, as compilers see it too
}

// Winsock counts its users; it is started once and left running.
static BOOL CALLBACK netio__os_start_once(PINIT_ONCE once, PVOID arg, PVOID *context)
{
    WSADATA data;
    int code = WSAStartup(MAKEWORD(2, 2), &data);
    (void)once, (void)context;
    *(int *)arg = code;
    return code == 0;
}

static int netio__os_start(void)
{
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    int code = 0;
    if (InitOnceExecuteOnce(&once, netio__os_start_once, &code, NULL)) return 0;
    WSASetLastError(code);
    return netio__os_map(code);
}

static uint64_t netio__os_now_us(void)
{
    LARGE_INTEGER now, per_s;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&per_s);
    uint64_t n = (uint64_t)now.QuadPart, f = (uint64_t)per_s.QuadPart;
    return n / f * 1000000u + n % f * 1000000u / f; // in two steps: n * 1,000,000 would overflow
}

// From iphlpapi, which a user should not have to link for this.
static uint32_t netio__os_if_index(const char *name)
{
    typedef ULONG(WINAPI * index_fn)(const char *);
    HMODULE dll = LoadLibraryA("iphlpapi.dll");
    index_fn fn = dll ? (index_fn)(void (*)(void))GetProcAddress(dll, "if_nametoindex") : NULL;
    uint32_t index = fn ? (uint32_t)fn(name) : 0;
    if (dll) FreeLibrary(dll);
    return index;
}

static bool netio__os_if_name(uint32_t index, char name[64])
{
    (void)index, (void)name; // names may be 256 long here: zones are written by number
    return false;
}

// --- descriptors -------------------------------------------------------------------------------

static void netio__os_close(netio_socket s)
{
    int code = WSAGetLastError();
    closesocket(s);
    WSASetLastError(code);
}

static int netio__os_close_socket(netio_socket s)
{
    int code = WSAGetLastError();
    if (closesocket(s) != 0 && WSAGetLastError() == WSAENOTSOCK) return NETIO_EBADF;
    WSASetLastError(code);
    return 0;
}

static int netio__os_set_inheritable(netio_socket s, bool on)
{
    if (SetHandleInformation((HANDLE)s, HANDLE_FLAG_INHERIT, on ? HANDLE_FLAG_INHERIT : 0))
        return 0;
    return netio__os_fail();
}

static int netio__os_set_nonblocking(netio_socket s, bool on)
{
    u_long value = on;
    return ioctlsocket(s, (long)FIONBIO, &value) != 0 ? netio__os_fail() : 0;
}

static int netio__os_get_nonblocking(netio_socket s, bool *on)
{
    int type, len = sizeof type;
    *on = true; // cannot be asked, so what is found stays as adopt makes it
    return getsockopt(s, SOL_SOCKET, SO_TYPE, (char *)&type, &len) != 0 ? netio__os_fail() : 0;
}

static void netio__os_no_sigpipe(netio_socket s)
{
    (void)s; // there is none
}

static int netio__os_socket(netio_socket *out, int family, int type, int protocol, bool inheritable)
{
    DWORD flags = WSA_FLAG_OVERLAPPED;
    netio_socket s;
    int err = netio__os_start();
    if (err < 0) return err;
    s = WSASocketW(family, type, protocol, NULL, 0,
                   inheritable ? flags : flags | NETIO__FLAG_NO_HANDLE_INHERIT);
    if (s == INVALID_SOCKET && WSAGetLastError() == WSAEINVAL) { // before Windows 7 SP1
        s = WSASocketW(family, type, protocol, NULL, 0, flags);
    }
    if (s == INVALID_SOCKET) return netio__os_fail();
    err = netio__os_set_nonblocking(s, true);
    if (err == 0) err = netio__os_set_inheritable(s, inheritable);
    if (err < 0) netio__os_close(s);
    else *out = s;
    return err;
}

// --- socket calls ------------------------------------------------------------------------------

static int netio__os_bind(netio_socket s, const void *sa, size_t len)
{
    return bind(s, (const struct sockaddr *)sa, (int)len) != 0 ? netio__os_fail() : 0;
}

static int netio__os_listen(netio_socket s, int backlog)
{
    return listen(s, backlog) != 0 ? netio__os_fail() : 0;
}

static int netio__os_connect(netio_socket s, const void *sa, size_t len)
{
    if (connect(s, (const struct sockaddr *)sa, (int)len) == 0) return 0;
    return WSAGetLastError() == WSAEWOULDBLOCK ? (int)NETIO_EINPROGRESS : netio__os_fail();
}

// A refused connect to this machine is repeated by Windows for two seconds, unless told not to.
static void netio__os_hurry_refusal(netio_socket s)
{
    struct {
        USHORT rtt;
        UCHAR retries;
    } p = {(USHORT)-1, (UCHAR)-2}; // TCP_INITIAL_RTO_UNSPECIFIED_RTT, _NO_SYN_RETRANSMISSIONS
    DWORD n;
    int code = WSAGetLastError();
    WSAIoctl(s, NETIO__SIO_TCP_INITIAL_RTO, &p, sizeof p, NULL, 0, &n, NULL, NULL);
    WSASetLastError(code);
}

static bool netio__os_accept_skip(int code)
{
    return code == WSAECONNRESET || code == WSAECONNABORTED || code == WSAENETDOWN ||
           code == WSAEINTR || code == WSAENOTCONN || code == WSAENETRESET || code == WSAETIMEDOUT;
}

static int netio__os_accept(netio_socket *out, netio_socket listener, void *sa, netio__socklen *len)
{
    for (int skipped = 0; skipped < 64; skipped++) {
        int room = 128;
        netio_socket s = accept(listener, (struct sockaddr *)sa, sa ? &room : NULL);
        if (s != INVALID_SOCKET) {
            if (netio__os_set_nonblocking(s, true) == 0 &&
                netio__os_set_inheritable(s, false) == 0) {
                if (sa) *len = room;
                *out = s;
                return 0;
            }
            netio__os_close(s);
        } else if (WSAGetLastError() == WSAEOPNOTSUPP) {
            return NETIO_EINVAL;
        } else if (!netio__os_accept_skip(WSAGetLastError())) {
            return netio__os_fail();
        }
    }
    return NETIO_EAGAIN;
}

// An unbound socket has no name here (WSAEINVAL): it is 0.0.0.0:0, as everywhere else.
static int netio__os_name(netio_socket s, void *sa, netio__socklen *len, bool peer)
{
    WSAPROTOCOL_INFOW info;
    int size = sizeof info;
    if (peer) return getpeername(s, (struct sockaddr *)sa, len) != 0 ? netio__os_fail() : 0;
    if (getsockname(s, (struct sockaddr *)sa, len) == 0) return 0;
    if (WSAGetLastError() != WSAEINVAL ||
        getsockopt(s, SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)&info, &size) != 0)
        return netio__os_fail();
    memset(sa, 0, (size_t)*len);
    ((struct sockaddr *)sa)->sa_family = (ADDRESS_FAMILY)info.iAddressFamily;
    *len = info.iAddressFamily == AF_INET6  ? (int)sizeof(struct sockaddr_in6)
           : info.iAddressFamily == AF_INET ? (int)sizeof(struct sockaddr_in)
                                            : 2;
    return 0;
}

static int netio__os_shutdown(netio_socket s, int how)
{
    static const int os_how[] = {0, SD_RECEIVE, SD_SEND, SD_BOTH};
    return shutdown(s, os_how[how]) != 0 ? netio__os_fail() : 0;
}

static int netio__os_setopt(netio_socket s, int level, int name, const void *value, size_t len)
{
    int r = setsockopt(s, level, name, (const char *)value, (int)len);
    return r != 0 ? netio__os_fail() : 0;
}

static int netio__os_getopt(netio_socket s, int level, int name, void *value, size_t *len)
{
    int n = (int)*len;
    memset(value, 0, *len); // a BOOL may come as one byte
    if (getsockopt(s, level, name, (char *)value, &n) != 0) return netio__os_fail();
    *len = (size_t)n;
    return 0;
}

static int netio__os_family(netio_socket s, int *out)
{
    WSAPROTOCOL_INFOW info;
    int size = sizeof info;
    if (getsockopt(s, SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)&info, &size) != 0)
        return netio__os_fail();
    *out = info.iAddressFamily;
    return 0;
}

static int netio__os_readable(netio_socket s, int *out)
{
    u_long n;
    if (ioctlsocket(s, (long)FIONREAD, &n) != 0) return netio__os_fail();
    *out = n > INT32_MAX ? INT32_MAX : (int)n;
    return 0;
}

static int netio__os_unsent(netio_socket s, int *out)
{
    (void)s, (void)out;
    return NETIO_ENOTSUP;
}

// Old systems, and Wine, have the idle time and the interval only as a pair in milliseconds.
static int netio__os_keepalive_pair(netio_socket s, int idle_s, int interval_s)
{
    u_long v[3];
    DWORD n;
    v[0] = 1;
    v[1] = (u_long)idle_s * 1000u;
    v[2] = (u_long)interval_s * 1000u;
    return WSAIoctl(s, NETIO__SIO_KEEPALIVE_VALS, v, sizeof v, NULL, 0, &n, NULL, NULL) != 0
               ? netio__os_fail()
               : 0;
}

// ICMP errors of earlier datagrams would fail later receives of everybody.
static void netio__os_quiet_datagrams(netio_socket s)
{
    BOOL off = FALSE;
    DWORD n;
    int code = WSAGetLastError();
    WSAIoctl(s, NETIO__SIO_UDP_CONNRESET, &off, sizeof off, NULL, 0, &n, NULL, NULL);
    WSAIoctl(s, NETIO__SIO_UDP_NETRESET, &off, sizeof off, NULL, 0, &n, NULL, NULL);
    WSASetLastError(code);
}

// --- bytes -------------------------------------------------------------------------------------

enum { NETIO__PEEK = MSG_PEEK };

static bool netio__os_is_datagram(netio_socket s)
{
    int type = 0, len = sizeof type, code = WSAGetLastError();
    getsockopt(s, SOL_SOCKET, SO_TYPE, (char *)&type, &len);
    WSASetLastError(code);
    return type == SOCK_DGRAM;
}

// WSAEMSGSIZE: the datagram was cut to `cap`. On a datagram socket "reset" is an ICMP refusal.
static ptrdiff_t netio__os_recv_fail(netio_socket s, size_t cap, size_t *full)
{
    int code = WSAGetLastError();
    if (code == WSAEMSGSIZE) {
        *full = cap + 1;
        return (ptrdiff_t)cap;
    }
    if (code == WSAECONNRESET && netio__os_is_datagram(s)) return NETIO_ECONNREFUSED;
    return netio__os_fail();
}

static ptrdiff_t netio__os_recv(netio_socket s, void *buf, size_t cap, int flags)
{
    size_t full;
    int n = recv(s, (char *)buf, (int)cap, flags);
    return n < 0 ? netio__os_recv_fail(s, cap, &full) : (ptrdiff_t)n;
}

static ptrdiff_t netio__os_send_fail(netio_socket s)
{
    if (WSAGetLastError() == WSAECONNRESET && netio__os_is_datagram(s)) return NETIO_ECONNREFUSED;
    return netio__os_fail();
}

static ptrdiff_t netio__os_send(netio_socket s, const void *data, size_t len)
{
    int n = send(s, (const char *)data, (int)len, 0);
    return n < 0 ? netio__os_send_fail(s) : (ptrdiff_t)n;
}

static void netio__os_iov_set(netio__iov *v, const void *data, size_t len)
{
    union {
        const void *in;
        char *out;
    } u; // WSABUF has no const, the calls that send do not write
    u.in = data;
    v->buf = u.out;
    v->len = (ULONG)len;
}

static ptrdiff_t netio__os_recvv(netio_socket s, netio__iov *iov, size_t count)
{
    DWORD n = 0, flags = 0;
    size_t cap = 0, full;
    if (WSARecv(s, iov, (DWORD)count, &n, &flags, NULL, NULL) == 0) return (ptrdiff_t)n;
    for (size_t i = 0; i < count; i++) cap += iov[i].len;
    return netio__os_recv_fail(s, cap, &full);
}

static ptrdiff_t netio__os_sendv(netio_socket s, netio__iov *iov, size_t count)
{
    DWORD n = 0;
    if (WSASend(s, iov, (DWORD)count, &n, 0, NULL, NULL) == 0) return (ptrdiff_t)n;
    return netio__os_send_fail(s);
}

static ptrdiff_t netio__os_recvfrom(netio_socket s, void *buf, size_t cap, void *sa,
                                    netio__socklen *len)
{
    size_t full = 0;
    if (sa) memset(sa, 0, (size_t)*len); // of a stream nothing is written there
    int n = recvfrom(s, (char *)buf, (int)cap, 0, (struct sockaddr *)sa, sa ? len : NULL);
    if (n >= 0 && sa && ((struct sockaddr *)sa)->sa_family == 0) *len = 0;
    if (n >= 0) return n;
    ptrdiff_t r = netio__os_recv_fail(s, cap, &full);
    return full ? (ptrdiff_t)full : r;
}

static ptrdiff_t netio__os_sendto(netio_socket s, const void *data, size_t len, const void *sa,
                                  size_t sa_len)
{
    int n = sendto(s, (const char *)data, (int)len, 0, (const struct sockaddr *)sa, (int)sa_len);
    return n < 0 ? netio__os_send_fail(s) : (ptrdiff_t)n;
}

// --- files -------------------------------------------------------------------------------------

static ptrdiff_t netio__os_sendfile(netio_socket s, netio_file file, uint64_t off, size_t len)
{
    (void)s, (void)file, (void)off, (void)len; // TransmitFile is for a completion engine
    return NETIO_ENOTSUP;
}

// ReadFile moves the file's position even if it is told where to read: it is put back.
static ptrdiff_t netio__os_read_file(netio_file file, void *buf, size_t cap, uint64_t off)
{
    OVERLAPPED at;
    LARGE_INTEGER zero, before;
    DWORD n = 0;
    zero.QuadPart = 0;
    if (GetFileType((HANDLE)file) == FILE_TYPE_PIPE ||
        !SetFilePointerEx((HANDLE)file, zero, &before, FILE_CURRENT))
        return NETIO_ENOTSUP;
    memset(&at, 0, sizeof at);
    at.Offset = (DWORD)off;
    at.OffsetHigh = (DWORD)(off >> 32);
    BOOL ok = ReadFile((HANDLE)file, buf, (DWORD)cap, &n, &at);
    if (!ok &&
        GetLastError() == ERROR_IO_PENDING) // opened for overlapped use: `at` is the kernel's
        ok = GetOverlappedResult((HANDLE)file, &at, &n, TRUE);
    DWORD code = ok ? 0 : GetLastError();
    SetFilePointerEx((HANDLE)file, before, NULL, FILE_BEGIN);
    if (ok) return (ptrdiff_t)n;
    SetLastError(code);
    return code == ERROR_HANDLE_EOF ? 0 : netio__os_fail();
}

static ptrdiff_t netio__os_read_pipe(netio_file file, void *buf, size_t cap)
{
    DWORD n = 0;
    if (ReadFile((HANDLE)file, buf, (DWORD)cap, &n, NULL)) return (ptrdiff_t)n;
    return GetLastError() == ERROR_BROKEN_PIPE ? 0 : netio__os_fail();
}

#if NETIO__HAS_UNIX
// The socket's file is a reparse point, which has no inode to tell by: the time it was made serves.
typedef struct netio__os_node {
    FILETIME made;
} netio__os_node;

static int netio__os_stat_socket(const char *path, netio__os_node *out)
{
    WIN32_FIND_DATAA found;
    HANDLE h = FindFirstFileA(path, &found);
    if (h == INVALID_HANDLE_VALUE) return netio__os_fail();
    FindClose(h);
    out->made = found.ftCreationTime;
    return (found.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) &&
                   found.dwReserved0 == NETIO__TAG_AF_UNIX
               ? 0
               : (int)NETIO_EINVAL;
}

static bool netio__os_same_node(const netio__os_node *a, const netio__os_node *b)
{
    return CompareFileTime(&a->made, &b->made) == 0;
}

static int netio__os_unlink(const char *path) { return DeleteFileA(path) ? 0 : netio__os_fail(); }

static void netio__os_mode_before(netio_socket s, int mode) { (void)s, (void)mode; }

static int netio__os_chmod(const char *path, int mode)
{
    (void)path, (void)mode;
    return NETIO_ENOTSUP;
}
#endif // NETIO__HAS_UNIX

// --- batches of datagrams, and what comes along with them --------------------------------------

#define NETIO__BATCH 64 // datagrams that one call looks at; each is a system call of its own

// Numbers of <ws2ipdef.h> and <mswsock.h>, by hand for compilers that lack them.
#define NETIO__WIN_PKTINFO 19 // IP_ and IPV6_PKTINFO
#define NETIO__WIN_TTL 21     // IP_RECVTTL, IPV6_HOPLIMIT
#define NETIO__WIN_TOS 40     // IP_RECVTOS, IPV6_RECVTCLASS
#define NETIO__WIN_TOS_VALUE 3
#define NETIO__WIN_TCLASS_VALUE 39
#define NETIO__WIN_TTL_VALUE 4
#define NETIO__WIN_COALESCED 3 // level IPPROTO_UDP: UDP_RECV_MAX_COALESCED_SIZE, UDP_COALESCED_INFO
#define NETIO__WIN_SEND_SIZE 2 // level IPPROTO_UDP: UDP_SEND_MSG_SIZE

typedef struct netio__win_msg { // WSAMSG
    struct sockaddr *name;
    INT name_len;
    netio__iov *iov;
    ULONG iov_count;
    WSABUF control;
    ULONG flags;
} netio__win_msg;

typedef struct netio__win_cmsg { // WSACMSGHDR; its data follows, aligned like a pointer
    SIZE_T len;
    INT level, type;
} netio__win_cmsg;

typedef INT(WINAPI *netio__win_recvmsg)(SOCKET, netio__win_msg *, DWORD *, void *, void *);
typedef INT(WINAPI *netio__win_sendmsg)(SOCKET, netio__win_msg *, DWORD, DWORD *, void *, void *);

#define NETIO__WIN_CONTROL 256

static size_t netio__win_align(size_t n)
{
    return (n + sizeof(SIZE_T) - 1) & ~(sizeof(SIZE_T) - 1);
}

// The two calls are reached through the socket's provider. NULL: it has none.
static bool netio__win_extension(netio_socket s, const GUID *which, void *out, size_t len)
{
    DWORD n;
    GUID id = *which;
    return WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof id, out, (DWORD)len, &n,
                    NULL, NULL) == 0;
}

static netio__win_recvmsg netio__win_find_recvmsg(netio_socket s)
{
    static const GUID id = {
        0xf689d7c8, 0x6f1f, 0x436b, {0x8a, 0x53, 0xe5, 0x4f, 0xe3, 0x51, 0xc3, 0x22}};
    netio__win_recvmsg fn = NULL;
    return netio__win_extension(s, &id, &fn, sizeof fn) ? fn : NULL;
}

static netio__win_sendmsg netio__win_find_sendmsg(netio_socket s)
{
    static const GUID id = {
        0xa441e712, 0x754f, 0x43ca, {0x84, 0xa7, 0x0d, 0xee, 0x44, 0xcf, 0x60, 0x6d}};
    netio__win_sendmsg fn = NULL;
    return netio__win_extension(s, &id, &fn, sizeof fn) ? fn : NULL;
}

static void netio__win_cmsg_take(netio_datagram *m, const netio__win_cmsg *c, const void *data,
                                 size_t len)
{
    struct {
        uint8_t addr[4];
        ULONG ifindex;
    } info4;
    struct {
        uint8_t addr[16];
        ULONG ifindex;
    } info6;
    int number = 0;
    if (len >= sizeof number) memcpy(&number, data, sizeof number);
    if (c->level == IPPROTO_UDP && c->type == NETIO__WIN_COALESCED) m->segment = (uint32_t)number;
    if (c->level != IPPROTO_IP && c->level != IPPROTO_IPV6) return;
    if (c->type == NETIO__WIN_TTL || (c->level == IPPROTO_IP && c->type == NETIO__WIN_TTL_VALUE))
        m->ttl = (uint8_t)number;
    if (c->type == NETIO__WIN_TOS || (c->level == IPPROTO_IP && c->type == NETIO__WIN_TOS_VALUE) ||
        (c->level == IPPROTO_IPV6 && c->type == NETIO__WIN_TCLASS_VALUE))
        m->tos = (uint8_t)number;
    if (c->type != NETIO__WIN_PKTINFO) return;
    if (c->level == IPPROTO_IP && len >= sizeof info4) {
        memcpy(&info4, data, sizeof info4);
        netio_addr_from_ip(&m->local, info4.addr, 4, 0);
        m->ifindex = (uint32_t)info4.ifindex;
    } else if (c->level == IPPROTO_IPV6 && len >= sizeof info6) {
        memcpy(&info6, data, sizeof info6);
        netio_addr_from_ip(&m->local, info6.addr, 16, 0);
        netio_addr_unmap(&m->local);
        m->ifindex = (uint32_t)info6.ifindex;
    }
}

static void netio__win_packet_clear(netio_datagram *m)
{
    m->local.len = 0;
    m->ifindex = m->segment = 0;
    m->time_ns = 0;
    m->tos = m->ttl = 0;
}

static ptrdiff_t netio__win_recv_one(netio_socket s, netio__win_recvmsg call, netio_datagram *m)
{
    uint64_t control[NETIO__WIN_CONTROL / 8];
    netio__win_msg h;
    netio__iov iov;
    DWORD n = 0;
    memset(&h, 0, sizeof h);
    memset(m->peer.raw, 0, sizeof m->peer.raw); // of a stream nothing is written there
    netio__os_iov_set(&iov, m->data, m->cap < NETIO__IO_MAX ? m->cap : NETIO__IO_MAX);
    h.name = (struct sockaddr *)(void *)m->peer.raw;
    h.name_len = (INT)sizeof m->peer.raw;
    h.iov = &iov;
    h.iov_count = 1;
    h.control.buf = (char *)(void *)control;
    h.control.len = sizeof control;
    bool cut = false;
    if (call(s, &h, &n, NULL, NULL) != 0) {
        if (WSAGetLastError() != WSAEMSGSIZE) {
            size_t full;
            return netio__os_recv_fail(s, m->cap, &full);
        }
        cut = true;
        n = (DWORD)iov.len;
    }
    netio__win_packet_clear(m);
    m->peer.len = (uint32_t)h.name_len;
    if (netio_addr_family(&m->peer) == 0) m->peer.len = 0;
    m->peer.dual = 0;
    netio_addr_unmap(&m->peer);
    m->truncated = cut;
    m->len = n;
    m->full = cut ? m->cap + 1 : n;
    for (size_t at = 0; !cut && at + sizeof(netio__win_cmsg) <= h.control.len;) {
        netio__win_cmsg c;
        size_t head = netio__win_align(sizeof c);
        memcpy(&c, (char *)(void *)control + at, sizeof c);
        if (c.len < head || c.len > h.control.len - at) break;
        netio__win_cmsg_take(m, &c, (char *)(void *)control + at + head, c.len - head);
        at += netio__win_align(c.len);
    }
    return (ptrdiff_t)n;
}

static int netio__os_recv_batch(netio_socket s, netio_datagram *m, size_t count)
{
    netio__win_recvmsg call = netio__win_find_recvmsg(s);
    size_t n = 0;
    if (!call) return netio__os_fail();
    for (; n < count; n++) {
        ptrdiff_t r = netio__win_recv_one(s, call, &m[n]);
        if (r < 0 && n == 0) return (int)r;
        if (r < 0) break;
    }
    return (int)n;
}

// Whether this Windows cuts datagrams itself: 10 (2004) and newer.
static bool netio__win_cuts(netio_socket s)
{
    DWORD size = 0;
    int len = sizeof size, code = WSAGetLastError();
    bool ok = getsockopt(s, IPPROTO_UDP, NETIO__WIN_SEND_SIZE, (char *)&size, &len) == 0;
    WSASetLastError(code);
    return ok;
}

static size_t netio__win_control_segment(uint8_t *at, uint32_t segment)
{
    netio__win_cmsg c;
    size_t head = netio__win_align(sizeof c);
    DWORD size = (DWORD)segment;
    c.len = head + sizeof size;
    c.level = IPPROTO_UDP;
    c.type = NETIO__WIN_SEND_SIZE;
    memcpy(at, &c, sizeof c);
    memcpy(at + head, &size, sizeof size);
    return netio__win_align(c.len);
}

// Source address and way out, and the size of segments, as control messages. Returns their length.
static size_t netio__win_control(netio_socket s, uint64_t *control, const netio_datagram *m)
{
    netio__win_cmsg c;
    int os_family = 0, family = netio_addr_family(m->local.len ? &m->local : &m->peer);
    if (family == 0 && netio__os_family(s, &os_family) == 0) // connected
        family = os_family == AF_INET ? NETIO_IPV4 : NETIO_IPV6;
    unsigned no_source = NETIO_ADDR_MULTICAST | NETIO_ADDR_BROADCAST | NETIO_ADDR_ANY;
    bool source = m->local.len && !(netio_addr_class(&m->local) & no_source);
    size_t head = netio__win_align(sizeof c), ip_len = family == NETIO_IPV4 ? 4 : 16;
    uint8_t *data = (uint8_t *)control + head;
    ULONG ifindex = m->ifindex;
    size_t used = 0;
    memset(control, 0, NETIO__WIN_CONTROL);
    if (m->segment && m->segment < m->len)
        used = netio__win_control_segment((uint8_t *)control, m->segment);
    if (!source && !ifindex) return used;
    data += used;
    if (source) memcpy(data, netio_addr_ip(&m->local).data, ip_len);
    memcpy(data + ip_len, &ifindex, sizeof ifindex);
    c.len = head + ip_len + sizeof ifindex;
    c.level = family == NETIO_IPV4 ? IPPROTO_IP : IPPROTO_IPV6;
    c.type = NETIO__WIN_PKTINFO;
    memcpy((uint8_t *)control + used, &c, sizeof c);
    return used + netio__win_align(c.len);
}

// `call`: looked up when first needed.
static ptrdiff_t netio__win_send_one(netio_socket s, const netio_datagram *m,
                                     netio__win_sendmsg *call)
{
    uint64_t control[NETIO__WIN_CONTROL / 8];
    netio__win_msg h;
    netio__iov iov;
    netio_addr peer = m->peer;
    DWORD n = 0;
    if (!m->local.len && !m->ifindex && (!m->segment || m->segment >= m->len)) {
        return m->peer.len ? netio__os_sendto(s, m->data, m->len, m->peer.raw, m->peer.len)
                           : netio__os_send(s, m->data, m->len);
    }
    if (!*call) *call = netio__win_find_sendmsg(s);
    if (!*call) return netio__os_fail();
    memset(&h, 0, sizeof h);
    netio__os_iov_set(&iov, m->data, m->len);
    h.name = peer.len ? (struct sockaddr *)(void *)peer.raw : NULL;
    h.name_len = (INT)peer.len;
    h.iov = &iov;
    h.iov_count = 1;
    h.control.buf = (char *)(void *)control;
    h.control.len = (ULONG)netio__win_control(s, control, m);
    return (*call)(s, &h, 0, &n, NULL, NULL) != 0 ? netio__os_send_fail(s) : (ptrdiff_t)n;
}

static int netio__os_send_batch(netio_socket s, const netio_datagram *m, size_t count)
{
    netio__win_sendmsg call = NULL;
    size_t n = 0;
    for (; n < count; n++) {
        ptrdiff_t r = netio__win_send_one(s, &m[n], &call);
        if (r < 0 && n == 0) return (int)r;
        if (r < 0) break;
    }
    return (int)n;
}

static void netio__os_own_groups(netio_socket s) { (void)s; }

// --- descriptors and credentials: not on Windows -----------------------------------------------

#if NETIO__HAS_UNIX
static ptrdiff_t netio__os_send_fds(netio_socket s, const void *data, size_t len,
                                    const netio_socket *fds, size_t count)
{
    (void)s, (void)data, (void)len, (void)fds, (void)count;
    return NETIO_ENOTSUP;
}

static ptrdiff_t netio__os_recv_fds(netio_socket s, void *buf, size_t cap, netio_socket *fds,
                                    size_t *count)
{
    (void)s, (void)buf, (void)cap, (void)fds, (void)count;
    return NETIO_ENOTSUP;
}

// SIO_AF_UNIX_GETPEERPID knows the process; there are no numbers for users.
static int netio__os_peer_cred(netio_socket s, netio_cred *out)
{
    ULONG pid;
    DWORD n;
    if (WSAIoctl(s, _WSAIOR(IOC_VENDOR, 256), NULL, 0, &pid, sizeof pid, &n, NULL, NULL) != 0)
        return WSAGetLastError() == WSAENOTSOCK ? (int)NETIO_ENOTSOCK : (int)NETIO_ENOTSUP;
    out->pid = (int64_t)pid;
    out->uid = out->gid = -1;
    return 0;
}
#endif // NETIO__HAS_UNIX

// --- interfaces --------------------------------------------------------------------------------

// What is used of IP_ADAPTER_ADDRESSES and its lists, whose full forms need <iphlpapi.h>.
typedef struct netio__win_unicast {
    ULONG length;
    DWORD flags;
    struct netio__win_unicast *next;
    SOCKET_ADDRESS address;
    int origin[3]; // prefix and suffix origin, duplicate address state
    ULONG lifetimes[3];
    UINT8 prefix_bits;
} netio__win_unicast;

typedef struct netio__win_adapter {
    ULONG length;
    DWORD index4;
    struct netio__win_adapter *next;
    char *name;
    netio__win_unicast *unicast;
    void *anycast, *multicast, *dns;
    WCHAR *dns_suffix, *description, *friendly_name;
    BYTE physical[8];
    DWORD physical_len, flags, mtu, type;
    int status;
    DWORD index6;
} netio__win_adapter;

static void netio__win_broadcast(netio_interface *i)
{
    uint8_t ip[4];
    netio_buf from = netio_addr_ip(&i->addr);
    if (from.len != 4 || i->prefix_bits > 30 || (i->flags & NETIO_IF_LOOPBACK)) return;
    memcpy(ip, from.data, 4);
    for (unsigned bit = i->prefix_bits; bit < 32; bit++)
        ip[bit / 8] = (uint8_t)(ip[bit / 8] | 0x80u >> bit % 8);
    netio_addr_from_ip(&i->broadcast, ip, 4, 0);
    i->flags |= NETIO_IF_BROADCAST;
}

static void netio__win_interface(netio_interface *out, const netio__win_adapter *a,
                                 const netio__win_unicast *u)
{
    memset(out, 0, sizeof *out);
    netio_addr_from_sockaddr(&out->addr, u->address.lpSockaddr, (size_t)u->address.iSockaddrLength);
    if (a->status == 1) out->flags |= NETIO_IF_UP;
    if (a->type == 24) out->flags |= NETIO_IF_LOOPBACK; // IF_TYPE_SOFTWARE_LOOPBACK
    if (!(a->flags & 0x10)) out->flags |= NETIO_IF_MULTICAST;
    bool v6 = netio_addr_family(&out->addr) == NETIO_IPV6;
    out->index = (uint32_t)(v6 ? a->index6 : a->index4);
    if (out->index == 0) out->index = (uint32_t)(v6 ? a->index4 : a->index6); // Wine fills in one
    out->prefix_bits = u->prefix_bits;
    WideCharToMultiByte(CP_UTF8, 0, a->friendly_name, -1, out->name, (int)sizeof out->name - 1,
                        NULL, NULL);
    netio__win_broadcast(out);
}

static ptrdiff_t netio__os_interfaces(netio_interface *out, size_t cap, size_t skip)
{
    typedef ULONG(WINAPI * adapters_fn)(ULONG, ULONG, void *, void *, ULONG *);
    HMODULE dll = LoadLibraryA("iphlpapi.dll");
    adapters_fn fn =
        dll ? (adapters_fn)(void (*)(void))GetProcAddress(dll, "GetAdaptersAddresses") : NULL;
    ULONG size = 16384, code = fn ? ERROR_BUFFER_OVERFLOW : ERROR_NOT_SUPPORTED;
    void *block = NULL;
    size_t n = 0;
    for (int i = 0; code == ERROR_BUFFER_OVERFLOW && i < 4; i++) {
        if (block) NETIO_FREE(block);
        block = NETIO_MALLOC(size);
        code = block ? fn(AF_UNSPEC, 0x0E /* no anycast, multicast, DNS */, NULL, block, &size)
                     : ERROR_NOT_ENOUGH_MEMORY;
    }
    for (netio__win_adapter *a = (netio__win_adapter *)block; code == 0 && a; a = a->next) {
        for (netio__win_unicast *u = a->unicast; u; u = u->next, n++)
            if (n >= skip && n - skip < cap) netio__win_interface(&out[n - skip], a, u);
    }
    if (block) NETIO_FREE(block);
    if (dll) FreeLibrary(dll);
    if (code == 0 || code == ERROR_NO_DATA) return (ptrdiff_t)n;
    WSASetLastError((int)code);
    return netio__os_fail();
}

// --- TCP's own view ----------------------------------------------------------------------------

// TCP_INFO_v0, Windows 10 (1703) and newer.
typedef struct netio__win_tcp_info {
    int state;
    ULONG mss;
    ULONG64 connected_ms;
    BOOLEAN timestamps;
    ULONG rtt_us, min_rtt_us, in_flight, cwnd, snd_wnd, rcv_wnd, rcv_buf;
    ULONG64 bytes_out, bytes_in;
    ULONG reordered, retransmitted, fast_retransmits, dup_acks, timeouts;
    UCHAR syn_retransmits;
} netio__win_tcp_info;

static int netio__os_tcp_info(netio_socket s, netio_tcp_info *out)
{
    static const int states[] = {
        NETIO_TCP_CLOSED,      NETIO_TCP_LISTEN,     NETIO_TCP_SYN_SENT,   NETIO_TCP_SYN_RECEIVED,
        NETIO_TCP_ESTABLISHED, NETIO_TCP_FIN_WAIT_1, NETIO_TCP_FIN_WAIT_2, NETIO_TCP_CLOSE_WAIT,
        NETIO_TCP_CLOSING,     NETIO_TCP_LAST_ACK,   NETIO_TCP_TIME_WAIT};
    netio__win_tcp_info i;
    DWORD version = 0, n;
    memset(&i, 0, sizeof i);
    if (WSAIoctl(s, _WSAIORW(IOC_VENDOR, 39), &version, sizeof version, &i, sizeof i, &n, NULL,
                 NULL) != 0)
        return WSAGetLastError() == WSAENOTSOCK ? (int)NETIO_ENOTSOCK : (int)NETIO_ENOTSUP;
    out->state = i.state >= 0 && i.state < 11 ? states[i.state] : NETIO_TCP_CLOSED;
    out->rtt_us = i.rtt_us;
    out->mss = i.mss;
    out->cwnd = i.mss ? i.cwnd / i.mss : 0;
    out->retransmits = i.mss ? (i.retransmitted + i.mss - 1) / i.mss : 0; // bytes, there
    out->unacked = i.in_flight;
    out->bytes_sent = i.bytes_out;
    out->bytes_received = i.bytes_in;
    return 0;
}

// --- waiting -----------------------------------------------------------------------------------

typedef struct netio__os_waiter {
    netio_socket socket;
    unsigned events, got; // NETIO_EV_*
} netio__os_waiter;

#define NETIO__WAITERS 33 // those of a race, and one more

// Laid out as Winsock's fd_set, which is a counted array: FD_SETSIZE is only its usual size.
typedef struct netio__os_set {
    u_int count;
    SOCKET sockets[NETIO__WAITERS];
} netio__os_set;

static void netio__os_set_add(netio__os_set *set, netio_socket s)
{
    set->sockets[set->count++] = s;
}

static bool netio__os_set_has(const netio__os_set *set, netio_socket s)
{
    for (u_int i = 0; i < set->count; i++)
        if (set->sockets[i] == s) return true;
    return false;
}

static void netio__os_timeval(struct timeval *tv, int timeout_ms)
{
    tv->tv_sec = timeout_ms / 1000;
    tv->tv_usec = timeout_ms % 1000 * 1000;
}

// What stands in the third set of select: a failed connect, or a byte of urgent data, which would
// stay there for ever. (SO_ERROR is not cleared by reading here.)
static bool netio__os_failed(netio_socket s)
{
    int error = 0, len = sizeof error, code = WSAGetLastError();
    bool failed = getsockopt(s, SOL_SOCKET, SO_ERROR, (char *)&error, &len) != 0 || error != 0;
    WSASetLastError(code);
    return failed;
}

// select, because old WSAPoll does not notice a failed connect; that one shows in the third set.
// `settled`: sockets with urgent data are there, so the third set is left out. NETIO_EAGAIN: do so.
static int netio__os_select(netio__os_waiter *w, size_t count, int timeout_ms, bool settled)
{
    netio__os_set in, out, bad;
    struct timeval tv;
    in.count = out.count = bad.count = 0;
    for (size_t i = 0; i < count; i++) {
        w[i].got = 0;
        if (w[i].events & NETIO_EV_READ) netio__os_set_add(&in, w[i].socket);
        if (w[i].events & NETIO_EV_WRITE) netio__os_set_add(&out, w[i].socket);
        if (!settled) netio__os_set_add(&bad, w[i].socket);
    }
    netio__os_timeval(&tv, timeout_ms);
    int n = select(0, (fd_set *)&in, (fd_set *)&out, (fd_set *)&bad, timeout_ms < 0 ? NULL : &tv);
    if (n < 0) return WSAGetLastError() == WSAENOTSOCK ? (int)NETIO_EBADF : netio__os_fail();
    int ready = 0;
    for (size_t i = 0; n > 0 && i < count; i++) {
        if (netio__os_set_has(&in, w[i].socket)) w[i].got |= NETIO_EV_READ;
        if (netio__os_set_has(&out, w[i].socket)) w[i].got |= NETIO_EV_WRITE;
        if (netio__os_set_has(&bad, w[i].socket) && netio__os_failed(w[i].socket))
            w[i].got |= w[i].events | NETIO_EV_HINT_ERROR;
        if (w[i].got) ready++;
    }
    return n > 0 && ready == 0 ? (int)NETIO_EAGAIN : ready;
}

static int netio__os_wait(netio__os_waiter *w, size_t count, int timeout_ms)
{
    if (count == 0) { // select would say WSAEINVAL
        Sleep(timeout_ms < 0 ? INFINITE : (DWORD)timeout_ms);
        return 0;
    }
    int64_t by = netio_deadline(timeout_ms);
    int n = netio__os_select(w, count, timeout_ms, false);
    return n == NETIO_EAGAIN ? netio__os_select(w, count, netio_deadline_left(by), true) : n;
}

#if NETIO__HAS_POLLER
// Nothing tells two sockets of one number apart but their addresses, if they have some.
static int netio__os_identity(netio_socket s, uint16_t *out)
{
    uint8_t sa[2][128];
    uint32_t h = 0;
    memset(sa, 0, sizeof sa);
    for (int i = 0; i < 2; i++) {
        int len = (int)sizeof sa[i];
        int r = i ? getpeername(s, (struct sockaddr *)(void *)sa[i], &len)
                  : getsockname(s, (struct sockaddr *)(void *)sa[i], &len);
        if (r != 0 && WSAGetLastError() == WSAENOTSOCK) return NETIO_EBADF;
        for (int k = 0; r == 0 && k < len; k++) h = h * 31u + sa[i][k];
    }
    *out = (uint16_t)(h ^ (h >> 16));
    return 0;
}
#endif

// --- threads: for lookups with a bounded time --------------------------------------------------

#if NETIO__HAS_THREADS
typedef SRWLOCK netio__os_mutex;
typedef CONDITION_VARIABLE netio__os_cond;
#define NETIO__OS_MUTEX_INIT SRWLOCK_INIT

static void netio__os_lock(netio__os_mutex *m) { AcquireSRWLockExclusive(m); }

static void netio__os_unlock(netio__os_mutex *m) { ReleaseSRWLockExclusive(m); }

static int netio__os_sync_open(netio__os_mutex *m, netio__os_cond *c)
{
    InitializeSRWLock(m);
    InitializeConditionVariable(c);
    return 0;
}

static void netio__os_sync_close(netio__os_mutex *m, netio__os_cond *c) { (void)m, (void)c; }

static void netio__os_notify(netio__os_cond *c) { WakeConditionVariable(c); }

static void netio__os_wait_notify(netio__os_mutex *m, netio__os_cond *c, int timeout_ms)
{
    SleepConditionVariableSRW(c, m, (DWORD)timeout_ms, 0);
}

static int netio__os_thread(DWORD(WINAPI *run)(void *arg), void *arg)
{
    HANDLE h = CreateThread(NULL, 0, run, arg, 0, NULL);
    if (!h) return netio__os_fail();
    CloseHandle(h);
    return 0;
}

typedef DWORD netio__os_thread_result;
#define NETIO__OS_THREAD_CALL WINAPI
#define NETIO__OS_THREAD_DONE 0
#endif // NETIO__HAS_THREADS

#if NETIO__HAS_HELPERS
// WriteFile moves the file's position even if it is told where to write: it is put back.
static ptrdiff_t netio__os_write_file(netio_file file, const void *data, size_t len, uint64_t off)
{
    OVERLAPPED at;
    LARGE_INTEGER zero, before;
    DWORD n = 0;
    zero.QuadPart = 0;
    if (off > INT64_MAX) return NETIO_EINVAL; // all ones mean the file's end
    if (GetFileType((HANDLE)file) == FILE_TYPE_PIPE) return NETIO_ENOTSUP;
    if (!SetFilePointerEx((HANDLE)file, zero, &before, FILE_CURRENT)) return netio__os_fail();
    memset(&at, 0, sizeof at);
    at.Offset = (DWORD)off;
    at.OffsetHigh = (DWORD)(off >> 32);
    BOOL ok = WriteFile((HANDLE)file, data, (DWORD)len, &n, &at);
    if (!ok && GetLastError() == ERROR_IO_PENDING) // opened for overlapped use, see read_file
        ok = GetOverlappedResult((HANDLE)file, &at, &n, TRUE);
    DWORD code = ok ? 0 : GetLastError();
    SetFilePointerEx((HANDLE)file, before, NULL, FILE_BEGIN);
    SetLastError(code);
    return ok ? (ptrdiff_t)n : netio__os_fail();
}
#endif // NETIO__HAS_HELPERS

// --- random numbers that nobody can predict ----------------------------------------------------

#if NETIO__HAS_WEBSOCKET
// RtlGenRandom by its exported name, so that nobody has to link advapi32 or bcrypt for it.
static int netio__os_random(void *buf, size_t len)
{
    typedef BOOLEAN(WINAPI * random_fn)(void *, ULONG);
    HMODULE dll = LoadLibraryA("advapi32.dll");
    random_fn fn = dll ? (random_fn)(void (*)(void))GetProcAddress(dll, "SystemFunction036") : NULL;
    bool ok = fn && fn(buf, (ULONG)len);
    if (dll) FreeLibrary(dll);
    return ok ? 0 : (int)NETIO_EIO;
}
#endif // NETIO__HAS_WEBSOCKET

// --- names -------------------------------------------------------------------------------------

static int netio__os_map_eai(int code) // EAI_* are Winsock's codes here
{
    return netio__os_map(code);
}

#endif // NETIO__WINDOWS

// What of the error section needs the OS.
NETIO_API int netio_os_error(void) { return netio__os_error(); }

NETIO_API int netio_error_from_os(int os_code) { return netio__os_map(os_code); }

//================================================================================================
// >>time.c
//================================================================================================

NETIO_API uint64_t netio_now_ms(void) { return netio__os_now_us() / 1000u; }

NETIO_API uint64_t netio_now_us(void) { return netio__os_now_us(); }

NETIO_API int64_t netio_deadline(int timeout_ms)
{
    if (timeout_ms < 0) return NETIO__NEVER;
    return (int64_t)netio__os_now_us() + (int64_t)timeout_ms * 1000;
}

NETIO_API int netio_deadline_left(int64_t deadline)
{
    if (deadline == NETIO__NEVER) return -1;
    int64_t left = deadline - (int64_t)netio__os_now_us();
    if (left <= 0) return 0;
    // Rounded up: a rest of 0.4 ms cut to 0 would make the caller spin until it is over.
    left = (left + 999) / 1000;
    return left > INT32_MAX ? INT32_MAX : (int)left;
}

//================================================================================================
// >>addr.c
//
// A netio_addr holds the OS's sockaddr as bytes. It is read and written with memcpy only, through a
// netio__ip for the two IP families.
//================================================================================================

typedef struct netio__ip {
    int family; // NETIO_IPV4, NETIO_IPV6
    uint8_t bytes[16];
    uint16_t port;
    uint32_t scope;
} netio__ip;

static int netio__addr_os_family(const netio_addr *a)
{
    struct sockaddr sa;
    if (a->len < offsetof(struct sockaddr, sa_data)) return AF_UNSPEC;
    memcpy(&sa, a->raw, offsetof(struct sockaddr, sa_data));
    return sa.sa_family;
}

#if NETIO__HAS_SA_LEN
static void netio__addr_seal(netio_addr *a)
{
    uint8_t len = (uint8_t)a->len;
    memcpy(a->raw, &len, 1);
}
#else
static void netio__addr_seal(netio_addr *a) { (void)a; }
#endif

static bool netio__addr_get_ip(netio__ip *out, const netio_addr *a)
{
    int family = netio__addr_os_family(a);
    memset(out, 0, sizeof *out);
    if (family == AF_INET && a->len >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in in;
        memcpy(&in, a->raw, sizeof in);
        memcpy(out->bytes, &in.sin_addr, 4);
        out->port = ntohs(in.sin_port);
        out->family = NETIO_IPV4;
    } else if (family == AF_INET6 && a->len >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 in6;
        memcpy(&in6, a->raw, sizeof in6);
        memcpy(out->bytes, &in6.sin6_addr, 16);
        out->port = ntohs(in6.sin6_port);
        out->scope = (uint32_t)in6.sin6_scope_id;
        out->family = NETIO_IPV6;
    }
    return out->family != 0;
}

static void netio__addr_set_ip(netio_addr *out, const netio__ip *ip)
{
    memset(out, 0, sizeof *out);
    if (ip->family == NETIO_IPV4) {
        struct sockaddr_in in;
        memset(&in, 0, sizeof in);
        in.sin_family = AF_INET;
        in.sin_port = htons(ip->port);
        memcpy(&in.sin_addr, ip->bytes, 4);
        memcpy(out->raw, &in, sizeof in);
        out->len = sizeof in;
    } else {
        struct sockaddr_in6 in6;
        memset(&in6, 0, sizeof in6);
        in6.sin6_family = AF_INET6;
        in6.sin6_port = htons(ip->port);
        in6.sin6_scope_id = ip->scope;
        memcpy(&in6.sin6_addr, ip->bytes, 16);
        memcpy(out->raw, &in6, sizeof in6);
        out->len = sizeof in6;
    }
    netio__addr_seal(out);
}

static bool netio__ip_mapped(const netio__ip *ip)
{
    static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
    return ip->family == NETIO_IPV6 && memcmp(ip->bytes, prefix, 12) == 0;
}

static void netio__ip_unmap(netio__ip *ip)
{
    if (!netio__ip_mapped(ip)) return;
    memmove(ip->bytes, ip->bytes + 12, 4);
    memset(ip->bytes + 4, 0, 12);
    ip->family = NETIO_IPV4;
    ip->scope = 0;
}

static void netio__ip_map(netio__ip *ip)
{
    if (ip->family != NETIO_IPV4) return;
    memmove(ip->bytes + 12, ip->bytes, 4);
    memset(ip->bytes, 0, 10);
    memset(ip->bytes + 10, 0xFF, 2);
    ip->family = NETIO_IPV6;
}

static bool netio__ip_is_any(const netio__ip *ip)
{
    static const uint8_t zero[16] = {0};
    return memcmp(ip->bytes, zero, 16) == 0;
}

static bool netio__ip_link_scope(const netio__ip *ip) // fe80::/10, ff01::/16, ff02::/16
{
    const uint8_t *b = ip->bytes;
    return ip->family == NETIO_IPV6 && ((b[0] == 0xFE && (b[1] & 0xC0) == 0x80) ||
                                        (b[0] == 0xFF && ((b[1] & 15) == 1 || (b[1] & 15) == 2)));
}

// --- parsing -----------------------------------------------------------------------------------

static bool netio__is_digit(char c) { return c >= '0' && c <= '9'; }

static int netio__hex_digit(char c)
{
    if (netio__is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// A decimal number of all `len` bytes, without sign or leading zeros. False: not one up to `max`.
static bool netio__parse_number(uint32_t *out, const char *text, size_t len, uint32_t max)
{
    uint64_t value = 0;
    if (len == 0 || len > 10 || (text[0] == '0' && len > 1)) return false;
    for (size_t i = 0; i < len; i++) {
        if (!netio__is_digit(text[i])) return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    if (value > max) return false;
    *out = (uint32_t)value;
    return true;
}

static bool netio__parse_port(uint16_t *out, const char *text, size_t len)
{
    uint32_t value;
    if (!netio__parse_number(&value, text, len, 65535)) return false;
    *out = (uint16_t)value;
    return true;
}

static bool netio__parse_ipv4(uint8_t out[4], const char *text, size_t len)
{
    size_t at = 0;
    for (int part = 0; part < 4; part++) {
        size_t begin = at;
        uint32_t value;
        if (part && (at >= len || text[at++] != '.')) return false;
        if (part) begin = at;
        while (at < len && netio__is_digit(text[at])) at++;
        if (!netio__parse_number(&value, text + begin, at - begin, 255)) return false;
        out[part] = (uint8_t)value;
    }
    return at == len;
}

// RFC 4291 section 2.2: eight groups of up to four digits, "::" once for one or more groups of
// zeros, the last two groups perhaps as IPv4.
static bool netio__parse_ipv6(uint8_t out[16], const char *text, size_t len)
{
    uint8_t bytes[16];
    int count = 0, gap = -1; // bytes so far; where "::" stood
    size_t at = 0;
    if (len >= 2 && text[0] == ':' && text[1] == ':') {
        gap = 0;
        at = 2;
    }
    while (at < len) {
        size_t begin = at;
        unsigned value = 0;
        while (at < len && at - begin < 4 && netio__hex_digit(text[at]) >= 0)
            value = value * 16 + (unsigned)netio__hex_digit(text[at++]);
        if (at < len && text[at] == '.') {
            if (count > 12 || !netio__parse_ipv4(bytes + count, text + begin, len - begin))
                return false;
            count += 4;
            break;
        }
        if (at == begin || count > 14) return false;
        bytes[count++] = (uint8_t)(value >> 8);
        bytes[count++] = (uint8_t)(value & 255);
        if (at == len) break;
        if (text[at++] != ':' || at == len) return false; // also a lone ':' at the end
        if (text[at] == ':') {
            if (gap >= 0) return false;
            gap = count;
            at++;
        }
    }
    if (gap < 0 ? count != 16 : count > 14) return false;
    memset(out, 0, 16);
    if (gap < 0) gap = count;
    memcpy(out, bytes, (size_t)gap);
    memcpy(out + 16 - (count - gap), bytes + gap, (size_t)(count - gap));
    return true;
}

static int netio__parse_zone(uint32_t *out, const char *text, size_t len)
{
    char name[64];
    if (len == 0 || len >= sizeof name || memchr(text, 0, len)) return NETIO_EINVAL;
    if (netio__parse_number(out, text, len, UINT32_MAX)) return *out ? 0 : NETIO_EINVAL;
    memcpy(name, text, len);
    name[len] = 0;
    *out = netio__os_if_index(name);
    return *out ? 0 : NETIO_ENODEV;
}

// A literal without its port, IPv6 without brackets: "192.0.2.1", "fe80::1%eth0".
static int netio__parse_ip(netio__ip *out, const char *text, size_t len)
{
    const char *zone = (const char *)memchr(text, '%', len);
    size_t ip_len = zone ? (size_t)(zone - text) : len;
    memset(out, 0, sizeof *out);
    if (!zone && netio__parse_ipv4(out->bytes, text, len)) {
        out->family = NETIO_IPV4;
        return 0;
    }
    if (!netio__parse_ipv6(out->bytes, text, ip_len)) return NETIO_EINVAL;
    out->family = NETIO_IPV6;
    if (!zone) return 0;
    if (!netio__ip_link_scope(out)) return NETIO_EINVAL;
    return netio__parse_zone(&out->scope, zone + 1, len - ip_len - 1);
}

NETIO_API int netio_addr_split(netio_buf *host, netio_buf *port, const char *text, size_t len)
{
    size_t host_len, colon;
    const char *name = text;
    if (!text || len == 0) return NETIO_EINVAL;
    if (text[0] == '[') {
        const char *end = (const char *)memchr(text, ']', len);
        if (!end) return NETIO_EINVAL;
        name = text + 1;
        host_len = (size_t)(end - name);
        colon = host_len + 2;
    } else {
        const char *end = (const char *)memchr(text, ':', len);
        if (!end) return NETIO_EINVAL;
        host_len = colon = (size_t)(end - text);
    }
    if (colon >= len || text[colon] != ':' || colon + 1 == len) return NETIO_EINVAL;
    if (memchr(text + colon + 1, ':', len - colon - 1)) return NETIO_EINVAL; // a bare IPv6 address
    host->data = name;
    host->len = host_len;
    port->data = text + colon + 1;
    port->len = len - colon - 1;
    return 0;
}

#if NETIO__HAS_UNIX
#define NETIO__PATH_MAX (sizeof(((netio__sockaddr_un *)0)->sun_path))
#define NETIO__PATH_OFFSET offsetof(netio__sockaddr_un, sun_path)

static void netio__addr_set_unix(netio_addr *out, const char *path, size_t len)
{
    netio__sockaddr_un un;
    memset(out, 0, sizeof *out);
    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    memcpy(un.sun_path, path, len);
    memcpy(out->raw, &un, sizeof un);
    out->len = (uint32_t)(NETIO__PATH_OFFSET + len);
    netio__addr_seal(out);
}

// The path or abstract name inside; a path without its NUL. An unnamed socket has none.
static bool netio__addr_get_unix(const netio_addr *a, const char **path, size_t *len)
{
    if (netio__addr_os_family(a) != AF_UNIX) return false;
    *path = (const char *)a->raw + NETIO__PATH_OFFSET;
    *len = a->len > NETIO__PATH_OFFSET ? a->len - NETIO__PATH_OFFSET : 0;
    if (*len && (*path)[0] != 0) { // systems differ in whether a NUL is counted
        const char *end = (const char *)memchr(*path, 0, *len);
        if (end) *len = (size_t)(end - *path);
    } else if (*len && !NETIO__HAS_ABSTRACT) {
        *len = 0;
    }
    return true;
}

NETIO_API int netio_addr_from_path(netio_addr *out, const char *path, size_t len)
{
    char name[NETIO__PATH_MAX];
    if (!out || !path || len == 0 || memchr(path, 0, len)) return NETIO_EINVAL;
    if (path[0] == '@') {
        if (!NETIO__HAS_ABSTRACT) return NETIO_ENOTSUP;
        if (len == 1) return NETIO_EINVAL;
        if (len > NETIO__PATH_MAX) return NETIO_ENAMETOOLONG;
        memcpy(name, path, len);
        name[0] = 0;
        netio__addr_set_unix(out, name, len);
        return 0;
    }
    if (len >= NETIO__PATH_MAX) return NETIO_ENAMETOOLONG;
    netio__addr_set_unix(out, path, len);
    out->len++; // its NUL, which some systems want
    netio__addr_seal(out);
    return 0;
}

static size_t netio__format_unix(const netio_addr *a, char *buf, size_t cap, size_t at)
{
    const char *path = NULL;
    size_t len = 0;
    netio__addr_get_unix(a, &path, &len);
    at = netio__text_z(buf, cap, at, "unix:");
    if (len && path[0] == '@')
        at = netio__text_z(buf, cap, at, "./"); // a file, not an abstract name
    for (size_t i = 0; i < len; i++) at = netio__text(buf, cap, at, path[i] ? path + i : "@", 1);
    return at;
}

static bool netio__unix_equal(const netio_addr *a, const netio_addr *b)
{
    const char *pa = NULL, *pb = NULL;
    size_t la = 0, lb = 0;
    return netio__addr_get_unix(a, &pa, &la) && netio__addr_get_unix(b, &pb, &lb) && la == lb &&
           memcmp(pa, pb, la) == 0;
}
#else
NETIO_API int netio_addr_from_path(netio_addr *out, const char *path, size_t len)
{
    (void)out, (void)path, (void)len;
    return NETIO_ENOTSUP;
}

static size_t netio__format_unix(const netio_addr *a, char *buf, size_t cap, size_t at)
{
    (void)a;
    return netio__text_z(buf, cap, at, "unix:");
}

static bool netio__unix_equal(const netio_addr *a, const netio_addr *b)
{
    return a->len == b->len && memcmp(a->raw, b->raw, a->len) == 0;
}
#endif // NETIO__HAS_UNIX

NETIO_API int netio_addr_parse(netio_addr *out, const char *text, size_t len)
{
    netio_buf host, port;
    netio__ip ip;
    uint16_t number;
    int err;
    if (!out || !text) return NETIO_EINVAL;
    if (len >= 5 && memcmp(text, "unix:", 5) == 0)
        return netio_addr_from_path(out, text + 5, len - 5);
    err = netio_addr_split(&host, &port, text, len);
    if (err < 0) return err;
    if (!netio__parse_port(&number, (const char *)port.data, port.len)) return NETIO_EINVAL;
    if (text[0] != '[' && (host.len == 0 || (host.len == 1 && text[0] == '*')))
        return netio_addr_any(out, 0, number);
    err = netio__parse_ip(&ip, (const char *)host.data, host.len);
    if (err < 0) return err;
    if ((text[0] == '[') != (ip.family == NETIO_IPV6)) return NETIO_EINVAL;
    ip.port = number;
    netio__addr_set_ip(out, &ip);
    return 0;
}

// --- formatting --------------------------------------------------------------------------------

static size_t netio__format_ipv4(const uint8_t *b, char *buf, size_t cap, size_t at)
{
    for (int i = 0; i < 4; i++) {
        if (i) at = netio__text(buf, cap, at, ".", 1);
        at = netio__text_uint(buf, cap, at, b[i], 10);
    }
    return at;
}

// RFC 5952: lower case, no leading zeros, "::" for the longest run of two or more zero groups, the
// first of several; mapped addresses end in IPv4 form (section 5).
static size_t netio__format_ipv6(const netio__ip *ip, char *buf, size_t cap, size_t at)
{
    unsigned group[8];
    int best = -1, best_len = 1, groups = netio__ip_mapped(ip) ? 6 : 8;
    for (int i = 0; i < 8; i++) group[i] = (unsigned)ip->bytes[i * 2] << 8 | ip->bytes[i * 2 + 1];
    for (int i = 0; i < groups; i++) {
        int run = 0;
        while (i + run < groups && group[i + run] == 0) run++;
        if (run > best_len) {
            best = i;
            best_len = run;
        }
        if (run) i += run - 1;
    }
    for (int i = 0; i < groups; i++) {
        if (i == best) {
            at = netio__text(buf, cap, at, "::", 2);
            i += best_len - 1;
            continue;
        }
        if (i && i != best + best_len) at = netio__text(buf, cap, at, ":", 1);
        at = netio__text_uint(buf, cap, at, group[i], 16);
    }
    if (groups == 8) return at;
    at = netio__text(buf, cap, at, ":", 1);
    return netio__format_ipv4(ip->bytes + 12, buf, cap, at);
}

static size_t netio__format_zone(uint32_t scope, char *buf, size_t cap, size_t at)
{
    char name[64];
    if (scope == 0) return at;
    at = netio__text(buf, cap, at, "%", 1);
    if (netio__os_if_name(scope, name)) return netio__text_z(buf, cap, at, name);
    return netio__text_uint(buf, cap, at, scope, 10);
}

static int netio__addr_format(const netio_addr *a, char *buf, size_t cap, bool whole)
{
    netio__ip ip;
    size_t at = 0;
    int family = netio_addr_family(a);
    if (family == 0 || (!buf && cap)) return NETIO_EINVAL;
    if (cap) buf[0] = 0;
    if (netio__addr_get_ip(&ip, a)) {
        bool brackets = whole && family == NETIO_IPV6;
        if (brackets) at = netio__text(buf, cap, at, "[", 1);
        if (family == NETIO_IPV4) at = netio__format_ipv4(ip.bytes, buf, cap, at);
        else at = netio__format_ipv6(&ip, buf, cap, at);
        at = netio__format_zone(ip.scope, buf, cap, at);
        if (brackets) at = netio__text(buf, cap, at, "]", 1);
        if (whole) at = netio__text(buf, cap, at, ":", 1);
        if (whole) at = netio__text_uint(buf, cap, at, ip.port, 10);
    } else if (family == NETIO_UNIX) {
        at = netio__format_unix(a, buf, cap, at);
    } else {
        at = netio__text_z(buf, cap, at, "family:");
        at = netio__text_uint(buf, cap, at, (unsigned)-family, 10);
    }
    return at < cap ? (int)at : (int)NETIO_ENOSPC;
}

NETIO_API int netio_addr_format(const netio_addr *a, char *buf, size_t cap)
{
    return netio__addr_format(a, buf, cap, true);
}

NETIO_API int netio_addr_format_host(const netio_addr *a, char *buf, size_t cap)
{
    return netio__addr_format(a, buf, cap, false);
}

// --- making ------------------------------------------------------------------------------------

NETIO_API int netio_addr_any(netio_addr *out, int family, uint16_t port)
{
    netio__ip ip;
    if (!out || (family != 0 && family != NETIO_IPV4 && family != NETIO_IPV6)) return NETIO_EINVAL;
    memset(&ip, 0, sizeof ip);
    ip.family = family ? family : NETIO_IPV6;
    ip.port = port;
    netio__addr_set_ip(out, &ip);
    out->dual = family == 0;
    return 0;
}

NETIO_API int netio_addr_loopback(netio_addr *out, int family, uint16_t port)
{
    static const uint8_t v4[4] = {127, 0, 0, 1};
    static const uint8_t v6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    if (family == NETIO_IPV4) return netio_addr_from_ip(out, v4, 4, port);
    if (family == NETIO_IPV6) return netio_addr_from_ip(out, v6, 16, port);
    return NETIO_EINVAL;
}

NETIO_API int netio_addr_from_ip(netio_addr *out, const void *bytes, size_t len, uint16_t port)
{
    netio__ip ip;
    if (!out || !bytes || (len != 4 && len != 16)) return NETIO_EINVAL;
    memset(&ip, 0, sizeof ip);
    memcpy(ip.bytes, bytes, len);
    ip.family = len == 4 ? NETIO_IPV4 : NETIO_IPV6;
    ip.port = port;
    netio__addr_set_ip(out, &ip);
    return 0;
}

NETIO_API int netio_addr_from_sockaddr(netio_addr *out, const void *sockaddr, size_t len)
{
    netio_addr a;
    int family;
    if (!out || !sockaddr || len < offsetof(struct sockaddr, sa_data) || len > sizeof a.raw)
        return NETIO_EINVAL;
    memset(&a, 0, sizeof a);
    memcpy(a.raw, sockaddr, len);
    a.len = (uint32_t)len;
    family = netio__addr_os_family(&a);
    if (family == AF_INET && len < sizeof(struct sockaddr_in)) return NETIO_EINVAL;
    if (family == AF_INET6 && len < sizeof(struct sockaddr_in6)) return NETIO_EINVAL;
    if (family == AF_UNIX && len > sizeof(netio__sockaddr_un)) return NETIO_EINVAL;
    if (family == AF_INET) a.len = sizeof(struct sockaddr_in);
    if (family == AF_INET6) a.len = sizeof(struct sockaddr_in6);
    netio__addr_seal(&a);
    *out = a;
    return 0;
}

NETIO_API const void *netio_addr_sockaddr(const netio_addr *a, size_t *len)
{
    if (len) *len = a->len;
    return a->raw;
}

// --- looking inside ----------------------------------------------------------------------------

NETIO_API int netio_addr_family(const netio_addr *a)
{
    netio__ip ip;
    if (!a || a->len == 0) return 0;
    if (netio__addr_get_ip(&ip, a)) return ip.family;
    int family = netio__addr_os_family(a);
    return family == AF_UNIX ? (int)NETIO_UNIX : -family;
}

NETIO_API uint16_t netio_addr_port(const netio_addr *a)
{
    netio__ip ip;
    return a && netio__addr_get_ip(&ip, a) ? ip.port : 0;
}

NETIO_API void netio_addr_set_port(netio_addr *a, uint16_t port)
{
    netio__ip ip;
    if (!a || !netio__addr_get_ip(&ip, a)) return;
    uint32_t dual = a->dual;
    ip.port = port;
    netio__addr_set_ip(a, &ip);
    a->dual = dual;
}

NETIO_API netio_buf netio_addr_ip(const netio_addr *a)
{
    netio_buf b = {NULL, 0};
    const uint8_t *raw = (const uint8_t *)a->raw;
    int family = netio_addr_family(a);
    if (family == NETIO_IPV4) {
        b.data = raw + offsetof(struct sockaddr_in, sin_addr);
        b.len = 4;
    } else if (family == NETIO_IPV6) {
        b.data = raw + offsetof(struct sockaddr_in6, sin6_addr);
        b.len = 16;
    }
    return b;
}

NETIO_API uint32_t netio_addr_scope(const netio_addr *a)
{
    netio__ip ip;
    return a && netio__addr_get_ip(&ip, a) ? ip.scope : 0;
}

static unsigned netio__class_ipv4(const uint8_t *b)
{
    unsigned c = 0;
    if (b[0] == 0 && b[1] == 0 && b[2] == 0 && b[3] == 0) c |= NETIO_ADDR_ANY;
    if (b[0] == 127) c |= NETIO_ADDR_LOOPBACK;
    if (b[0] == 10 || (b[0] == 172 && (b[1] & 0xF0) == 16) || (b[0] == 192 && b[1] == 168))
        c |= NETIO_ADDR_PRIVATE;
    if (b[0] == 169 && b[1] == 254) c |= NETIO_ADDR_LINK_LOCAL;
    if ((b[0] & 0xF0) == 224) c |= NETIO_ADDR_MULTICAST;
    if (b[0] == 255 && b[1] == 255 && b[2] == 255 && b[3] == 255) c |= NETIO_ADDR_BROADCAST;
    return c;
}

static unsigned netio__class_ipv6(const netio__ip *ip)
{
    static const uint8_t loopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    const uint8_t *b = ip->bytes;
    unsigned c = 0;
    if (netio__ip_mapped(ip)) return netio__class_ipv4(b + 12) | NETIO_ADDR_MAPPED;
    if (netio__ip_is_any(ip)) c |= NETIO_ADDR_ANY;
    if (memcmp(b, loopback, 16) == 0) c |= NETIO_ADDR_LOOPBACK;
    if ((b[0] & 0xFE) == 0xFC) c |= NETIO_ADDR_PRIVATE;
    if (b[0] == 0xFE && (b[1] & 0xC0) == 0x80) c |= NETIO_ADDR_LINK_LOCAL;
    if (b[0] == 0xFF) c |= NETIO_ADDR_MULTICAST;
    return c;
}

NETIO_API unsigned netio_addr_class(const netio_addr *a)
{
    netio__ip ip;
    if (!a || !netio__addr_get_ip(&ip, a)) return 0;
    return ip.family == NETIO_IPV4 ? netio__class_ipv4(ip.bytes) : netio__class_ipv6(&ip);
}

NETIO_API void netio_addr_unmap(netio_addr *a)
{
    netio__ip ip;
    if (!a || netio__addr_os_family(a) != AF_INET6) return;
    if (!netio__addr_get_ip(&ip, a) || !netio__ip_mapped(&ip)) return;
    netio__ip_unmap(&ip);
    netio__addr_set_ip(a, &ip);
}

static bool netio__addr_equal(const netio_addr *a, const netio_addr *b, bool ports)
{
    netio__ip x, y;
    bool ip = netio__addr_get_ip(&x, a);
    if (ip != netio__addr_get_ip(&y, b)) return false;
    if (ip) {
        netio__ip_unmap(&x);
        netio__ip_unmap(&y);
        return x.family == y.family && memcmp(x.bytes, y.bytes, 16) == 0 && x.scope == y.scope &&
               (!ports || x.port == y.port);
    }
    int family = netio_addr_family(a);
    if (family != netio_addr_family(b)) return false;
    if (family == NETIO_UNIX) return netio__unix_equal(a, b);
    return a->len == b->len && memcmp(a->raw, b->raw, a->len) == 0;
}

NETIO_API bool netio_addr_equal(const netio_addr *a, const netio_addr *b)
{
    return netio__addr_equal(a, b, true);
}

NETIO_API bool netio_addr_equal_host(const netio_addr *a, const netio_addr *b)
{
    return netio__addr_equal(a, b, false);
}

static uint64_t netio__hash(uint64_t h, const void *data, size_t len) // FNV-1a
{
    const uint8_t *p = (const uint8_t *)data;
    for (size_t i = 0; i < len; i++) h = (h ^ p[i]) * UINT64_C(0x100000001B3);
    return h;
}

NETIO_API uint64_t netio_addr_hash(const netio_addr *a)
{
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    netio__ip ip;
    if (netio__addr_get_ip(&ip, a)) {
        netio__ip_unmap(&ip);
        h = netio__hash(h, ip.bytes, 16);
        h = netio__hash(h, &ip.scope, sizeof ip.scope);
        h = netio__hash(h, &ip.port, sizeof ip.port);
        return h ^ (uint64_t)ip.family;
    }
    char text[NETIO_ADDR_TEXT];
    if (netio_addr_family(a) == NETIO_UNIX) // its canonical form, as lengths count a NUL or not
    {
        size_t n = netio__format_unix(a, text, sizeof text, 0);
        return netio__hash(h, text, n < sizeof text ? n : sizeof text - 1);
    }
    return netio__hash(h, a->raw, a->len);
}

// --- networks and ports ------------------------------------------------------------------------

NETIO_API int netio_cidr_parse(netio_cidr *out, const char *text, size_t len)
{
    netio__ip ip;
    uint32_t bits;
    if (!out || !text) return NETIO_EINVAL;
    const char *slash = (const char *)memchr(text, '/', len);
    size_t ip_len = slash ? (size_t)(slash - text) : len;
    if (memchr(text, '%', ip_len) || netio__parse_ip(&ip, text, ip_len) < 0) return NETIO_EINVAL;
    uint32_t max = ip.family == NETIO_IPV4 ? 32 : 128;
    bits = max;
    if (slash && !netio__parse_number(&bits, slash + 1, len - ip_len - 1, max)) return NETIO_EINVAL;
    for (uint32_t i = bits; i < max; i++)
        if (ip.bytes[i / 8] >> (7 - i % 8) & 1) return NETIO_EINVAL;
    memset(out, 0, sizeof *out);
    memcpy(out->ip, ip.bytes, 16);
    out->ip_len = (uint8_t)(max / 8);
    out->bits = (uint8_t)bits;
    return 0;
}

NETIO_API bool netio_cidr_contains(const netio_cidr *net, const netio_addr *a)
{
    netio__ip ip, n;
    if (!net || !a || !netio__addr_get_ip(&ip, a)) return false;
    // A network that was never filled in must not let everybody pass.
    if ((net->ip_len != 4 && net->ip_len != 16) || net->bits > net->ip_len * 8) return false;
    memset(&n, 0, sizeof n);
    n.family = net->ip_len == 4 ? NETIO_IPV4 : NETIO_IPV6;
    memcpy(n.bytes, net->ip, 16);
    uint32_t bits = net->bits;
    if (netio__ip_mapped(&n) && bits >= 96) { // "::ffff:10.0.0.0/104" is 10.0.0.0/8
        netio__ip_unmap(&n);
        bits -= 96;
    }
    netio__ip_unmap(&ip);
    if (n.family != ip.family) return false;
    if (memcmp(n.bytes, ip.bytes, bits / 8) != 0) return false;
    unsigned rest = bits % 8, mask = 0xFF00u >> rest & 0xFFu;
    return rest == 0 || (n.bytes[bits / 8] & mask) == (ip.bytes[bits / 8] & mask);
}

NETIO_API int netio_port_class(uint16_t port) { return port < 1024 ? 0 : port < 49152 ? 1 : 2; }

//================================================================================================
// >>resolve.c
//
// netio__lookup_run does the work on whichever thread; a lookup with a bounded time is a block of
// its own with two owners, the caller and the thread, and the last to leave frees it.
//================================================================================================

typedef struct netio__lookup {
    char host[256], service[64];
    uint16_t port;
    int family;
    netio_resolver resolver;
    void *resolver_user;
    bool reverse; // the name of found[0], into host
    int err, os_code;
    size_t count;
    netio_addr found[NETIO_RESOLVE_MAX];
} netio__lookup;

static bool netio__copy_text(char *out, size_t cap, const netio_buf *text)
{
    if (text->len >= cap || memchr(text->data, 0, text->len)) return false;
    memcpy(out, text->data, text->len);
    out[text->len] = 0;
    return true;
}

// inet_aton, which the system's resolver may ask, takes "7" and "0x7f" for addresses.
static bool netio__label_is_number(const char *label, size_t len)
{
    size_t i = 0;
    bool hex = len > 1 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X');
    for (i = hex ? 2 : 0; i < len; i++)
        if (hex ? netio__hex_digit(label[i]) < 0 : !netio__is_digit(label[i])) return false;
    return len > 0;
}

static bool netio__host_char(char c)
{
    return (unsigned char)c >= 128 || netio__is_digit(c) || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

// What may go to the resolver as a host name: RFC 1123 labels, and '_', and bytes above 127. The
// last label is no number, or "1.2.3" would be read as an address.
static bool netio__host_ok(const char *host)
{
    size_t len = strlen(host), begin = 0;
    bool number = true;
    if (len && host[len - 1] == '.') len--; // the root's dot
    if (len == 0 || len > 253) return false;
    for (size_t i = 0; i <= len; i++) {
        if (i < len && host[i] != '.') {
            if (!netio__host_char(host[i])) return false;
            continue;
        }
        if (i == begin || i - begin > 63) return false;
        number = netio__label_is_number(host + begin, i - begin);
        begin = i + 1;
    }
    return !number;
}

static struct addrinfo netio__hints(int family, int type)
{
    struct addrinfo hints;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = family == NETIO_IPV4 ? AF_INET : family == NETIO_IPV6 ? AF_INET6 : AF_UNSPEC;
    hints.ai_socktype = type; // one answer for each address, not one for each type
    return hints;
}

static int netio__eai(int code)
{
    if (code == 0) return 0;
    return netio__os_map_eai(code);
}

static int netio__service(uint16_t *out, const char *name, int type)
{
    struct addrinfo hints = netio__hints(NETIO_IPV4, type), *list = NULL;
    netio_addr a;
    if (netio__is_digit(name[0]) || name[0] == 0) return NETIO_ENOENT;
    int err = netio__os_start();
    if (err == 0) err = netio__eai(NETIO_GETADDRINFO(NULL, name, &hints, &list));
    if (err == NETIO_EAI_NONAME) err = NETIO_ENOENT;
    if (err < 0) return err;
    if (!list) return NETIO_ENOENT;
    err = netio_addr_from_sockaddr(&a, list->ai_addr, (size_t)list->ai_addrlen);
    if (err == 0) *out = netio_addr_port(&a);
    NETIO_FREEADDRINFO(list);
    return err;
}

static bool netio__known(const netio_addr *list, size_t count, const netio_addr *a)
{
    for (size_t i = 0; i < count; i++)
        if (netio_addr_equal(&list[i], a)) return true;
    return false;
}

// One answer, if it is of use: an IP address of the family asked for, and not known yet. One family
// may take half of the list (`half`), so that a long list of the first leaves room for the second.
static void netio__lookup_keep(netio__lookup *q, netio_addr a, bool half)
{
    size_t same = 0;
    netio_addr_unmap(&a);
    int family = netio_addr_family(&a);
    if (family != NETIO_IPV4 && family != NETIO_IPV6) return;
    if (q->family && family != q->family) return;
    for (size_t i = 0; i < q->count; i++) same += netio_addr_family(&q->found[i]) == family;
    if (q->count == NETIO_RESOLVE_MAX || (half && same >= NETIO_RESOLVE_MAX / 2)) return;
    if (!netio__known(q->found, q->count, &a)) q->found[q->count++] = a;
}

static int netio__lookup_system(netio__lookup *q)
{
    struct addrinfo hints = netio__hints(q->family, SOCK_STREAM), *list = NULL;
    int err = netio__eai(NETIO_GETADDRINFO(q->host, NULL, &hints, &list));
    if (err < 0) return err;
    for (int pass = 0; pass < 2; pass++) {
        for (struct addrinfo *i = list; i; i = i->ai_next) {
            netio_addr a;
            if (netio_addr_from_sockaddr(&a, i->ai_addr, (size_t)i->ai_addrlen) < 0) continue;
            netio_addr_set_port(&a, q->port);
            netio__lookup_keep(q, a, pass == 0);
        }
    }
    if (list) NETIO_FREEADDRINFO(list);
    return q->count ? 0 : NETIO_EAI_NONAME;
}

static int netio__lookup_custom(netio__lookup *q)
{
    netio_addr got[NETIO_RESOLVE_MAX];
    memset(got, 0, sizeof got);
    ptrdiff_t n = q->resolver(q->resolver_user, q->host, q->port, got, NETIO_RESOLVE_MAX);
    if (n < 0) return (int)n;
    for (ptrdiff_t i = 0; i < n && i < NETIO_RESOLVE_MAX; i++) netio__lookup_keep(q, got[i], false);
    return q->count ? 0 : NETIO_EAI_NONAME;
}

// RFC 8305 section 4: families take turns, beginning with that of the first; each keeps its order.
static void netio__interleave(netio_addr *list, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        size_t next = i;
        while (next < count && netio_addr_family(&list[next]) == netio_addr_family(&list[i - 1]))
            next++;
        if (next == count) return;
        netio_addr a = list[next];
        memmove(list + i + 1, list + i, (next - i) * sizeof *list);
        list[i] = a;
    }
}

static int netio__lookup_reverse(netio__lookup *q)
{
    int code =
        getnameinfo((const struct sockaddr *)q->found[0].raw, (netio__socklen)q->found[0].len,
                    q->host, sizeof q->host, NULL, 0, NI_NAMEREQD);
    return netio__eai(code);
}

static void netio__lookup_run(netio__lookup *q)
{
    q->err = netio__os_start();
    if (q->err == 0) {
        q->err = q->reverse    ? netio__lookup_reverse(q)
                 : q->resolver ? netio__lookup_custom(q)
                               : netio__lookup_system(q);
    }
    q->os_code = netio__os_error();
    if (!q->reverse) netio__interleave(q->found, q->count);
}

// --- with a bounded time -----------------------------------------------------------------------

#if NETIO__HAS_THREADS
typedef struct netio__lookup_job {
    netio__lookup q; // the thread's until `done`
    netio__os_mutex lock;
    netio__os_cond finished;
    bool done, abandoned;
} netio__lookup_job;

// Threads that are inside the resolver now. A resolver that hangs keeps its thread: the bound keeps
// a program that asks again and again from collecting them without end.
static netio__os_mutex netio__lookup_lock = NETIO__OS_MUTEX_INIT;
static int netio__lookup_threads;

static bool netio__lookup_enter(int n)
{
    bool ok;
    netio__os_lock(&netio__lookup_lock);
    ok = n < 0 || netio__lookup_threads < 64;
    if (ok) netio__lookup_threads += n;
    netio__os_unlock(&netio__lookup_lock);
    return ok;
}

static void netio__lookup_free(netio__lookup_job *job)
{
    netio__os_sync_close(&job->lock, &job->finished);
    NETIO_FREE(job);
}

static netio__os_thread_result NETIO__OS_THREAD_CALL netio__lookup_thread(void *arg)
{
    netio__lookup_job *job = (netio__lookup_job *)arg;
    netio__lookup_run(&job->q);
    netio__lookup_enter(-1);
    netio__os_lock(&job->lock);
    bool abandoned = job->abandoned;
    job->done = true;
    netio__os_notify(&job->finished);
    netio__os_unlock(&job->lock);
    if (abandoned) netio__lookup_free(job);
    return NETIO__OS_THREAD_DONE;
}

static int netio__lookup_bounded(netio__lookup *q, int timeout_ms)
{
    int64_t by = netio_deadline(timeout_ms);
    netio__lookup_job *job = (netio__lookup_job *)NETIO_MALLOC(sizeof *job);
    if (!job) return NETIO_ENOMEM;
    int err = netio__os_sync_open(&job->lock, &job->finished);
    if (err < 0) {
        NETIO_FREE(job);
        return err;
    }
    job->q = *q;
    job->done = job->abandoned = false;
    err = netio__lookup_enter(1) ? 0 : NETIO_EBUSY;
    if (err == 0) {
        err = netio__os_thread(netio__lookup_thread, job);
        if (err < 0) netio__lookup_enter(-1);
    }
    if (err < 0) {
        netio__lookup_free(job);
        return err;
    }
    netio__os_lock(&job->lock);
    for (int left; !job->done && (left = netio_deadline_left(by)) > 0;)
        netio__os_wait_notify(&job->lock, &job->finished, left);
    bool done = job->done;
    job->abandoned = !done;
    netio__os_unlock(&job->lock); // from here on the thread may free an abandoned job
    if (!done) return NETIO_ETIMEDOUT;
    *q = job->q;
    netio__lookup_free(job);
    netio__os_set_error(q->os_code);
    return q->err;
}
#else
static int netio__lookup_bounded(netio__lookup *q, int timeout_ms)
{
    (void)q, (void)timeout_ms;
    return NETIO_ENOTSUP;
}
#endif // NETIO__HAS_THREADS

static int netio__lookup_do(netio__lookup *q, int timeout_ms)
{
    if (timeout_ms == 0) return NETIO_EAGAIN;
    if (timeout_ms > 0) return netio__lookup_bounded(q, timeout_ms);
    netio__lookup_run(q);
    netio__os_set_error(q->os_code);
    return q->err;
}

// --- public ------------------------------------------------------------------------------------

// What needs no lookup: a literal of any kind. NETIO_EAGAIN: a name, now in `q`.
static int netio__resolve_literal(netio__lookup *q, const char *text)
{
    netio_buf host, port;
    netio__ip ip;
    size_t len = strlen(text);
    if (len >= 5 && memcmp(text, "unix:", 5) == 0) {
        q->count = 1;
        return netio_addr_parse(&q->found[0], text, len);
    }
    int err = netio_addr_split(&host, &port, text, len);
    if (err < 0) return err;
    if (!netio__parse_port(&q->port, (const char *)port.data, port.len)) {
        if (!netio__copy_text(q->service, sizeof q->service, &port)) return NETIO_EINVAL;
        if (netio__is_digit(q->service[0])) return NETIO_EINVAL; // "080", "70000", "80x"
        err = netio__service(&q->port, q->service, SOCK_STREAM);
        if (err < 0) return err;
    }
    q->count = 1;
    if (text[0] != '[' && (host.len == 0 || (host.len == 1 && text[0] == '*')))
        return netio_addr_any(&q->found[0], q->family, q->port);
    err = netio__parse_ip(&ip, (const char *)host.data, host.len);
    if (err == 0) {
        if ((text[0] == '[') != (ip.family == NETIO_IPV6)) return NETIO_EINVAL;
        ip.port = q->port;
        netio__addr_set_ip(&q->found[0], &ip);
        return q->family && q->family != ip.family ? (int)NETIO_EAI_NONAME : 0;
    }
    if (err == NETIO_ENODEV || text[0] == '[') return err;
    q->count = 0;
    if (!netio__copy_text(q->host, sizeof q->host, &host) || !netio__host_ok(q->host))
        return NETIO_EINVAL;
    return NETIO_EAGAIN;
}

NETIO_API ptrdiff_t netio_resolve(const char *host_port, netio_addr *out, size_t cap,
                                  const netio_resolve_opts *opts, int timeout_ms)
{
    netio__lookup q;
    if (!host_port || !out || cap == 0) return NETIO_EINVAL;
    memset(&q, 0, sizeof q);
    if (opts) {
        q.family = opts->family;
        q.resolver = opts->resolver;
        q.resolver_user = opts->resolver_user;
    }
    if (q.family != 0 && q.family != NETIO_IPV4 && q.family != NETIO_IPV6) return NETIO_EINVAL;
    int err = netio__resolve_literal(&q, host_port);
    if (err == NETIO_EAGAIN) err = netio__lookup_do(&q, timeout_ms);
    if (err < 0) return err;
    if (q.count > cap) q.count = cap;
    memcpy(out, q.found, q.count * sizeof *out);
    return (ptrdiff_t)q.count;
}

NETIO_API int netio_resolve_reverse(const netio_addr *a, char *buf, size_t cap, int timeout_ms)
{
    netio__lookup q;
    netio__ip ip;
    if (!a || !buf || !netio__addr_get_ip(&ip, a)) return NETIO_EINVAL;
    memset(&q, 0, sizeof q);
    q.reverse = true;
    netio__ip_unmap(&ip);
    netio__addr_set_ip(&q.found[0], &ip);
    int err = netio__lookup_do(&q, timeout_ms);
    if (err < 0) return err;
    size_t len = netio__text_z(buf, cap, 0, q.host);
    return len < cap ? (int)len : (int)NETIO_ENOSPC;
}

NETIO_API int netio_service_port(const char *name, const char *protocol)
{
    uint16_t port = 0;
    bool udp = protocol && strcmp(protocol, "udp") == 0;
    if (!name || !protocol || (!udp && strcmp(protocol, "tcp") != 0)) return NETIO_EINVAL;
    int err = netio__service(&port, name, udp ? SOCK_DGRAM : SOCK_STREAM);
    return err < 0 ? err : port;
}

// --- interfaces --------------------------------------------------------------------------------

NETIO_API ptrdiff_t netio_interfaces(netio_interface *out, size_t cap)
{
    int err = netio__os_start();
    if (err < 0) return err;
    return !out && cap ? (ptrdiff_t)NETIO_EINVAL : netio__os_interfaces(out, cap, 0);
}

// Walks the addresses of this machine, a few at a time, until `match` says so. False: none did.
static bool netio__interface_find(bool (*match)(const netio_interface *i, const void *arg),
                                  const void *arg, netio_interface *out)
{
    netio_interface page[16];
    ptrdiff_t count = 0;
    for (size_t at = 0; count >= 0 && at <= (size_t)count; at += 16) {
        count = netio__os_interfaces(page, 16, at);
        for (size_t i = 0; i < 16 && count > 0 && at + i < (size_t)count; i++) {
            if (!match(&page[i], arg)) continue;
            *out = page[i];
            return true;
        }
    }
    return false;
}

static bool netio__interface_has_ip(const netio_interface *i, const void *arg)
{
    const netio__ip *want = (const netio__ip *)arg;
    netio__ip have;
    return netio__addr_get_ip(&have, &i->addr) && have.family == want->family &&
           memcmp(have.bytes, want->bytes, 16) == 0 && (!want->scope || want->scope == have.scope);
}

static bool netio__interface_has_index(const netio_interface *i, const void *arg)
{
    return i->index == *(const uint32_t *)arg;
}

static bool netio__interface_has_name(const netio_interface *i, const void *arg)
{
    return strcmp(i->name, (const char *)arg) == 0;
}

NETIO_API uint32_t netio_interface_index(const char *text)
{
    netio_interface found;
    netio__ip ip;
    uint32_t number;
    char name[64];
    if (!text || !text[0] || netio__os_start() < 0) return 0;
    size_t len = strlen(text);
    if (netio__parse_ip(&ip, text, len) == 0)
        return netio__interface_find(netio__interface_has_ip, &ip, &found) ? found.index : 0;
    if (!netio__parse_number(&number, text, len, UINT32_MAX)) {
        number = netio__os_if_index(text);
        if (number) return number;
        // Windows' friendly names, which netio_interfaces gives.
        return netio__interface_find(netio__interface_has_name, text, &found) ? found.index : 0;
    }
    if (number == 0 || netio__os_if_name(number, name)) return number;
    return netio__interface_find(netio__interface_has_index, &number, &found) ? number : 0;
}

//================================================================================================
// >>socket.c
//
// Every call tries first and waits only if it must: netio__again says whether to try once more.
//================================================================================================

// The deadline of one call, read from the clock only when the call first has to wait.
typedef struct netio__patience {
    int timeout_ms;
    int64_t by; // 0: not looked at yet
} netio__patience;

static netio__patience netio__patient(int timeout_ms)
{
    netio__patience p;
    p.timeout_ms = timeout_ms;
    p.by = 0;
    return p;
}

// Milliseconds to wait now; 0: time is over.
static int netio__patience_left(netio__patience *p)
{
    if (p->timeout_ms <= 0) return p->timeout_ms < 0 ? -1 : 0;
    if (p->by == 0) {
        p->by = netio_deadline(p->timeout_ms);
        return p->timeout_ms;
    }
    return netio_deadline_left(p->by);
}

// What a call that ran out of time returns.
static int netio__patience_over(const netio__patience *p)
{
    return p->timeout_ms == 0 ? NETIO_EAGAIN : NETIO_ETIMEDOUT;
}

// Waits for `events`. Returns what came; NETIO_EAGAIN, NETIO_ETIMEDOUT, NETIO_EBADF.
static int netio__wait(netio_socket s, unsigned events, netio__patience *p)
{
    if (s == NETIO_INVALID_SOCKET) return NETIO_EBADF; // which poll(2) would wait for
    for (;;) {
        netio__os_waiter w;
        int left = netio__patience_left(p);
        if (left == 0 && p->timeout_ms != 0) return NETIO_ETIMEDOUT;
        w.socket = s;
        w.events = events;
        int n = netio__os_wait(&w, 1, left);
        if (n < 0) return n;
        if (n > 0) return (int)w.got;
        if (p->timeout_ms == 0) return NETIO_EAGAIN;
    }
}

// After a call that returned `r`: true if it would block and the socket became ready in time. Else
// `*r` is what to return. (With a single try nothing is asked of the OS.)
static bool netio__again(ptrdiff_t *r, netio_socket s, unsigned events, netio__patience *p)
{
    if (*r != NETIO_EAGAIN || p->timeout_ms == 0) return false;
    int code = netio__os_error();
    int got = netio__wait(s, events, p);
    if (got > 0) return true;
    if (got == NETIO_ETIMEDOUT) netio__os_set_error(code);
    *r = got;
    return false;
}

static int netio__socket_type(netio_socket s)
{
    int type = 0;
    size_t len = sizeof type;
    int err = netio__os_getopt(s, SOL_SOCKET, SO_TYPE, &type, &len);
    return err < 0 ? err : type;
}

static const netio_socket_opts netio__no_opts = {
    0,    0,    0, 0, false,           false, false, false, false,
    NULL, NULL, 0, 0, {0, NULL, NULL}, NULL,  0,     NULL,  0};

static int netio__os_type(int type)
{
    return type == NETIO_STREAM      ? SOCK_STREAM
           : type == NETIO_DGRAM     ? SOCK_DGRAM
           : type == NETIO_SEQPACKET ? SOCK_SEQPACKET
                                     : -1;
}

// --- making sockets ----------------------------------------------------------------------------

static int netio__set_int(netio_socket s, int level, int name, int value)
{
    return netio__os_setopt(s, level, name, &value, sizeof value);
}

static int netio__apply_settings(netio_socket s, const netio_socket_opts *o)
{
    for (size_t i = 0; i < o->setting_count; i++) {
        const netio_setting *set = &o->settings[i];
        int err = set->text ? netio_set_option_text(s, set->option, set->text)
                            : netio_set_option(s, set->option, set->value);
        if (err < 0) return err;
    }
    return 0;
}

// Windows' SO_REUSEADDR lets another program take the port, and a restart needs none.
#if NETIO__WINDOWS
static int netio__set_restart(netio_socket s)
{
    (void)s;
    return 0;
}

static int netio__set_share_group(netio_socket s)
{
    return netio__set_int(s, SOL_SOCKET, SO_REUSEADDR, 1);
}

static int netio__set_exclusive(netio_socket s)
{
    return netio__set_int(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1);
}
#else
static int netio__set_restart(netio_socket s)
{
    return netio__set_int(s, SOL_SOCKET, SO_REUSEADDR, 1);
}

static int netio__set_exclusive(netio_socket s)
{
    (void)s; // nobody else may, unless both ask for it
    return 0;
}
#endif

// Balanced by the kernel: Linux's SO_REUSEPORT and FreeBSD's SO_REUSEPORT_LB. Elsewhere the flag of
// that name lets the last socket have everything.
#if NETIO__LINUX
static int netio__set_balance(netio_socket s)
{
    return netio__set_int(s, SOL_SOCKET, SO_REUSEPORT, 1);
}
#elif defined(SO_REUSEPORT_LB)
static int netio__set_balance(netio_socket s)
{
    return netio__set_int(s, SOL_SOCKET, SO_REUSEPORT_LB, 1);
}
#else
static int netio__set_balance(netio_socket s)
{
    (void)s;
    return NETIO_ENOTSUP;
}
#endif

#if !NETIO__WINDOWS
#if NETIO__BSD
static int netio__set_share_group(netio_socket s)
{
    return netio__set_int(s, SOL_SOCKET, SO_REUSEPORT, 1);
}
#else
static int netio__set_share_group(netio_socket s)
{
    int err = netio__set_int(s, SOL_SOCKET, SO_REUSEADDR, 1);
    if (err == 0) netio__os_own_groups(s);
    return err;
}
#endif
static void netio__os_quiet_datagrams(netio_socket s)
{
    (void)s; // only Windows fails a receive because of somebody else's ICMP error
}
#endif

// Linux and Windows have opposite defaults. OpenBSD cannot do dual-stack at all, which matters only
// to the any-address.
static int netio__set_v6_only(netio_socket s, const netio_addr *a, int v6_only)
{
    int err = netio__set_int(s, IPPROTO_IPV6, IPV6_V6ONLY, v6_only);
    if (err == 0 || v6_only) return err;
    return netio_addr_class(a) & NETIO_ADDR_ANY ? (int)NETIO_ENOTSUP : 0;
}

// A socket of the right family for `a`, with what must be set before bind or connect. v6_only: 1,
// 0, or -1 for connecting sockets, where it does not matter.
static int netio__make(netio_socket *out, const netio_addr *a, int type, int v6_only,
                       const netio_socket_opts *o)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    int family = netio__addr_os_family(a), os_type = netio__os_type(type);
    if (os_type < 0) return NETIO_EINVAL;
    if (family == AF_UNIX && !NETIO__HAS_UNIX) return NETIO_ENOTSUP;
    int err = netio__os_socket(&s, family, os_type, 0, o->inheritable);
    if (err < 0) return err;
    NETIO_ON_OP(NETIO_OP_OPEN, s, 0);
    if (family == AF_INET6 && v6_only >= 0) err = netio__set_v6_only(s, a, v6_only);
    if (err == 0 && o->balance) err = netio__set_balance(s);
    if (err == 0 && o->exclusive) err = netio__set_exclusive(s);
    if (err == 0 && o->share_group) err = netio__set_share_group(s);
    if (err == 0) err = netio__apply_settings(s, o);
    if (err < 0) {
        netio__os_close(s);
        NETIO_ON_OP(NETIO_OP_CLOSE, s, 0);
        return err;
    }
    *out = s;
    return 0;
}

static void netio__unmake(netio_socket s)
{
    netio__os_close(s);
    NETIO_ON_OP(NETIO_OP_CLOSE, s, 0);
}

static int netio__family_fits(const netio_addr *a, int family)
{
    if (family != 0 && family != NETIO_IPV4 && family != NETIO_IPV6) return NETIO_EINVAL;
    return family == 0 || netio_addr_family(a) == family ? 0 : NETIO_EAFNOSUPPORT;
}

#if NETIO__HAS_UNIX
// The path inside as a C string; NULL: not a Unix address, or abstract.
static const char *netio__unix_path(const netio_addr *a)
{
    const char *path;
    size_t len;
    return netio__addr_get_unix(a, &path, &len) && len && path[0] ? path : NULL;
}

// Whether anybody answers on a socket file. 0: nobody; NETIO_EADDRINUSE: somebody; others: cannot
// tell. Datagram sockets answer a connect as well.
static int netio__unix_probe(const netio_addr *a)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    int err = NETIO_EINVAL;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        netio_socket s = NETIO_INVALID_SOCKET;
        if (netio__os_socket(&s, AF_UNIX, types[i], 0, false) < 0) continue;
        err = netio__os_connect(s, a->raw, a->len);
        netio__os_close(s);
        if (err == NETIO_ECONNREFUSED || err == NETIO_ENOENT) return 0;
        if (err != NETIO_EINVAL) break; // EPROTOTYPE: of another type
    }
    return err == 0 || err == NETIO_EAGAIN || err == NETIO_EINPROGRESS ? (int)NETIO_EADDRINUSE
                                                                       : err;
}

// Removes a socket file on which nobody answers, and no other.
static int netio__unix_remove_stale(const netio_addr *a)
{
    netio__os_node before, now;
    const char *path = netio__unix_path(a);
    memset(&before, 0, sizeof before);
    memset(&now, 0, sizeof now);
    if (!path) return NETIO_EADDRINUSE; // abstract names vanish with their sockets
    int err = netio__os_stat_socket(path, &before);
    if (err == 0) err = netio__unix_probe(a);
    if (err == 0) err = netio__os_stat_socket(path, &now);
    if (err < 0) return err;
    if (!netio__os_same_node(&before, &now)) return NETIO_EADDRINUSE; // a successor's, meanwhile
    return netio__os_unlink(path);
}

static int netio__bind_unix(netio_socket s, const netio_addr *a, const netio_socket_opts *o)
{
    const char *path = netio__unix_path(a);
    if (o->unix_mode && path) netio__os_mode_before(s, o->unix_mode);
    int err = netio__os_bind(s, a->raw, a->len);
    if (err == NETIO_EADDRINUSE) {
        err = netio__unix_remove_stale(a);
        if (err == 0 || err == NETIO_ENOENT) err = netio__os_bind(s, a->raw, a->len);
    }
    if (err == 0 && o->unix_mode && path) { // nobody can connect yet: it does not listen
        err = netio__os_chmod(path, o->unix_mode);
        if (err < 0) netio__os_unlink(path);
    }
    return err;
}

NETIO_API int netio_unix_unlink(const netio_addr *a)
{
    if (!a || !netio__unix_path(a)) return NETIO_EINVAL;
    return netio__unix_remove_stale(a);
}
#else
static int netio__bind_unix(netio_socket s, const netio_addr *a, const netio_socket_opts *o)
{
    (void)s, (void)a, (void)o;
    return NETIO_ENOTSUP;
}
#endif // NETIO__HAS_UNIX

static int netio__bind_to(netio_socket s, const netio_addr *a, const netio_socket_opts *o)
{
    int err = netio__addr_os_family(a) == AF_UNIX ? netio__bind_unix(s, a, o)
                                                  : netio__os_bind(s, a->raw, a->len);
    NETIO_ON_OP(NETIO_OP_BIND, s, err);
    return err;
}

// Bound, and listening if `listens`.
static int netio__open_local(netio_socket *out, const netio_addr *a, int type, bool listens,
                             const netio_socket_opts *o)
{
    netio_socket s;
    bool v6_only = o->v6_only || (o->family == NETIO_IPV6 && a->dual);
    int err = netio__make(&s, a, type, v6_only, o);
    if (err < 0) return err;
    if (listens && netio__addr_os_family(a) != AF_UNIX && !o->exclusive)
        err = netio__set_restart(s);
    if (err == 0) err = netio__bind_to(s, a, o);
    if (err == 0 && listens) err = netio__os_listen(s, o->backlog ? o->backlog : 1024);
    if (err == 0 && type == NETIO_DGRAM) netio__os_quiet_datagrams(s);
    if (err < 0) netio__unmake(s);
    else *out = s;
    return err;
}

// ":port" in the families asked for; where IPv6 is off, IPv4 alone.
static int netio__open_any(netio_socket *out, const netio_addr *dual, int type, bool listens,
                           const netio_socket_opts *o)
{
    netio_addr a = *dual;
    uint16_t port = netio_addr_port(dual);
    if (o->family != NETIO_IPV4) {
        int err = netio__open_local(out, &a, type, listens, o);
        if (err != NETIO_EAFNOSUPPORT && err != NETIO_EADDRNOTAVAIL) return err;
        if (o->family == NETIO_IPV6 || o->v6_only) return err;
    }
    netio_addr_any(&a, NETIO_IPV4, port);
    return netio__open_local(out, &a, type, listens, o);
}

static int netio__open_text(netio_socket *out, const char *address, int type, bool listens,
                            const netio_socket_opts *o)
{
    netio_addr a;
    int err = netio_addr_parse(&a, address, strlen(address));
    if (err < 0) return err;
    if (a.dual) {
        if (o->family != 0 && o->family != NETIO_IPV4 && o->family != NETIO_IPV6)
            return NETIO_EINVAL;
        return netio__open_any(out, &a, type, listens, o);
    }
    err = netio__family_fits(&a, o->family);
    if (err < 0) return err;
    netio_addr_unmap(&a);
    return netio__open_local(out, &a, type, listens, o);
}

NETIO_API int netio_listen(netio_socket *out, const char *address, const netio_socket_opts *opts)
{
    const netio_socket_opts *o = opts ? opts : &netio__no_opts;
    int type = o->type ? o->type : (int)NETIO_STREAM;
    if (!out || !address || o->backlog < 0 || type == NETIO_DGRAM) return NETIO_EINVAL;
    return netio__open_text(out, address, type, true, o);
}

// Not bound: IPv6 that takes IPv4 peers too, else IPv4.
static int netio__open_unbound(netio_socket *out, int type, const netio_socket_opts *o)
{
    netio_addr a;
    int err = netio_addr_any(&a, o->family, 0);
    if (err < 0) return err;
    err = netio__make(out, &a, type, o->v6_only, o);
    if ((err == NETIO_EAFNOSUPPORT || err == NETIO_ENOTSUP) && o->family == 0 && !o->v6_only) {
        netio_addr_any(&a, NETIO_IPV4, 0);
        err = netio__make(out, &a, type, 0, o);
    }
    if (err == 0 && type == NETIO_DGRAM) netio__os_quiet_datagrams(*out);
    return err;
}

NETIO_API int netio_bind(netio_socket *out, const char *address, const netio_socket_opts *opts)
{
    const netio_socket_opts *o = opts ? opts : &netio__no_opts;
    int type = o->type ? o->type : (int)NETIO_DGRAM;
    if (!out) return NETIO_EINVAL;
    if (!address) return netio__open_unbound(out, type, o);
    return netio__open_text(out, address, type, false, o);
}

NETIO_API int netio_open(netio_socket *out, int os_family, int os_type, int os_protocol)
{
    if (!out) return NETIO_EINVAL;
    int err = netio__os_socket(out, os_family, os_type, os_protocol, false);
    if (err == 0) NETIO_ON_OP(NETIO_OP_OPEN, *out, 0);
    return err == NETIO_EINVAL ? (int)NETIO_ENOTSUP : err; // Linux, of a type that it does not know
}

// --- connecting one address --------------------------------------------------------------------

// "Connect to 0.0.0.0" means this machine on Linux, fails on Windows; here it always means that.
static void netio__to_loopback(netio_addr *a)
{
    netio__ip ip;
    if (!netio__addr_get_ip(&ip, a) || !netio__ip_is_any(&ip)) return;
    ip.bytes[0] = ip.family == NETIO_IPV4 ? 127 : 0;
    ip.bytes[ip.family == NETIO_IPV4 ? 3 : 15] = 1;
    netio__addr_set_ip(a, &ip);
}

static int netio__bind_local(netio_socket s, const netio_addr *peer, const netio_socket_opts *o)
{
    netio_addr local;
    int err = netio_addr_parse(&local, o->local, strlen(o->local));
    if (err < 0) return err;
    if (local.dual) netio_addr_any(&local, netio_addr_family(peer), netio_addr_port(&local));
    netio_addr_unmap(&local);
    if (netio_addr_family(&local) != netio_addr_family(peer)) return NETIO_EAFNOSUPPORT;
    // A fixed source port may be in TIME_WAIT from the connection before.
    if (netio_addr_port(&local)) err = netio__set_restart(s);
    return err < 0 ? err : netio__bind_to(s, &local, o);
}

// Linux and others may connect an ephemeral port of this machine to itself when nobody listens.
static bool netio__self_connected(netio_socket s)
{
    netio_addr a, b;
    return netio_local_addr(s, &a) == 0 && netio_peer_addr(s, &b) == 0 &&
           netio_addr_family(&a) > NETIO_UNIX && netio_addr_equal(&a, &b);
}

NETIO_API int netio_connect_start(netio_socket *out, const netio_addr *addr,
                                  const netio_socket_opts *opts)
{
    const netio_socket_opts *o = opts ? opts : &netio__no_opts;
    int type = o->type ? o->type : (int)NETIO_STREAM;
    netio_socket s;
    netio_addr a;
    if (!out || !addr || netio_addr_family(addr) == 0) return NETIO_EINVAL;
    int err = netio__family_fits(addr, o->family);
    if (err < 0) return err;
    a = *addr;
    netio_addr_unmap(&a);
    netio__to_loopback(&a);
    err = netio__make(&s, &a, type, -1, o);
    if (err < 0) return err;
    if (o->local) err = netio__bind_local(s, &a, o);
    if (err == 0 && (netio_addr_class(&a) & NETIO_ADDR_LOOPBACK)) netio__os_hurry_refusal(s);
    if (err == 0) {
        err = netio__os_connect(s, a.raw, a.len);
        NETIO_ON_OP(NETIO_OP_CONNECT, s, err);
    }
    if (err == 0 && type == NETIO_STREAM && !o->local && netio__self_connected(s))
        err = NETIO_ECONNREFUSED;
    if (err < 0 && err != NETIO_EINPROGRESS) {
        netio__unmake(s);
        return err;
    }
    *out = s;
    return err;
}

// What became of a connect whose socket is ready. SO_ERROR alone says it; reading clears it.
static int netio__connect_result(netio_socket s)
{
    netio_addr peer;
    int code = 0;
    size_t len = sizeof code;
    int err = netio__os_getopt(s, SOL_SOCKET, SO_ERROR, &code, &len);
    if (err == 0 && code) {
        netio__os_set_error(code);
        err = netio__os_map(code);
    }
    if (err < 0) return err;
    // Never connected at all. (macOS: EINVAL if the peer has left again, its bytes may wait.)
    if (netio_peer_addr(s, &peer) == NETIO_ENOTCONN) return NETIO_ENOTCONN;
    return netio__self_connected(s) ? (int)NETIO_ECONNREFUSED : 0;
}

NETIO_API int netio_connect_finish(netio_socket s, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    int got = netio__wait(s, NETIO_EV_WRITE, &p);
    if (got < 0) return got;
    int err = netio__connect_result(s);
    NETIO_ON_OP(NETIO_OP_CONNECT, s, err);
    return err;
}

// --- racing several addresses ------------------------------------------------------------------
//
// RFC 8305 section 5: the next address starts when one has failed, or after a head start.
//
//     waiting --start--> trying --ready--> won
//        ^                 |
//        '--backlog full---+--error, deadline--> failed

typedef struct netio__attempt {
    netio_addr addr;
    netio_socket socket;
    int err; // of a failed one; NETIO_EINPROGRESS while it tries
    int os_code;
    int pause_ms;  // Unix, backlog full: how long to wait before the next try; 0: none yet
    int64_t again; // when
} netio__attempt;

typedef struct netio__race {
    const netio_socket_opts *o;
    netio__attempt list[NETIO_RESOLVE_MAX];
    size_t count, started;
    int64_t next; // when the next address starts
    int stagger_ms;
} netio__race;

static void netio__attempt_fail(netio__attempt *t, int err)
{
    t->err = err;
    t->os_code = netio__os_error();
    t->pause_ms = 0;
}

// Returns 1 if it is connected at once.
static int netio__attempt_start(netio__race *r, netio__attempt *t)
{
    int err = netio_connect_start(&t->socket, &t->addr, r->o);
    t->err = NETIO_EINPROGRESS;
    if (err == 0) return 1;
    if (err == NETIO_EINPROGRESS) t->pause_ms = 0;
    if (err == NETIO_EINPROGRESS) return 0;
    t->socket = NETIO_INVALID_SOCKET;
    if (err == NETIO_EAGAIN && netio_addr_family(&t->addr) == NETIO_UNIX) {
        // A full backlog. The socket would poll as writable though it is not connected.
        t->pause_ms = t->pause_ms ? t->pause_ms < 32 ? t->pause_ms * 2 : 50 : 1;
        t->again = netio_deadline(t->pause_ms);
        return 0;
    }
    // EAGAIN of an IP socket: no ephemeral port is left.
    netio__attempt_fail(t, err == NETIO_EAGAIN ? (int)NETIO_EADDRNOTAVAIL : err);
    return 0;
}

static size_t netio__race_trying(const netio__race *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->started; i++) n += r->list[i].err == NETIO_EINPROGRESS;
    return n;
}

// Starts what is due. Returns the one that is connected at once, if any.
static netio__attempt *netio__race_start_due(netio__race *r)
{
    for (size_t i = 0; i < r->started; i++) {
        netio__attempt *t = &r->list[i];
        if (t->pause_ms && netio_deadline_left(t->again) == 0 && netio__attempt_start(r, t))
            return t;
    }
    while (r->started < r->count &&
           (netio__race_trying(r) == 0 || netio_deadline_left(r->next) == 0)) {
        netio__attempt *t = &r->list[r->started++];
        r->next = netio_deadline(r->stagger_ms);
        if (netio__attempt_start(r, t)) return t;
    }
    return NULL;
}

static int netio__sooner(int a, int b) // of two timeouts, -1 being never
{
    return a < 0 ? b : b < 0 ? a : a < b ? a : b;
}

// Waits for the sockets that try. Returns the winner; NULL: none yet. A socket that fails lets the
// next address start at once.
static netio__attempt *netio__race_wait(netio__race *r, int left, int *err)
{
    netio__os_waiter w[NETIO_RESOLVE_MAX];
    netio__attempt *who[NETIO_RESOLVE_MAX];
    size_t n = 0;
    if (r->started < r->count) left = netio__sooner(left, netio_deadline_left(r->next));
    for (size_t i = 0; i < r->started; i++) {
        netio__attempt *t = &r->list[i];
        if (t->err != NETIO_EINPROGRESS) continue;
        if (t->pause_ms) {
            left = netio__sooner(left, netio_deadline_left(t->again));
            continue;
        }
        w[n].socket = t->socket;
        w[n].events = NETIO_EV_WRITE;
        who[n++] = t;
    }
    *err = netio__os_wait(w, n, left);
    if (*err < 0) return NULL;
    for (size_t i = 0; i < n; i++) {
        if (!w[i].got) continue;
        int result = netio__connect_result(who[i]->socket);
        NETIO_ON_OP(NETIO_OP_CONNECT, who[i]->socket, result);
        if (result == 0) return who[i];
        netio__attempt_fail(who[i], result);
        netio__unmake(who[i]->socket);
        who[i]->socket = NETIO_INVALID_SOCKET;
        r->next = 0;
    }
    return NULL;
}

// Of several failures the one that tells most: a host that answered says more than a silent one,
// and that says more than this machine's own refusals. Any time-out makes the verdict a time-out.
static int netio__race_rank(int err)
{
    static const int order[] = {NETIO_ETIMEDOUT,   NETIO_ECONNREFUSED,  NETIO_ECONNRESET,
                                NETIO_EACCES,      NETIO_EHOSTUNREACH,  NETIO_ENETUNREACH,
                                NETIO_ENETDOWN,    NETIO_EADDRNOTAVAIL, NETIO_EADDRINUSE,
                                NETIO_EAFNOSUPPORT};
    int rank = (int)(sizeof order / sizeof order[0]);
    for (int i = 0; i < rank; i++)
        if (order[i] == err) return rank - i;
    return 0;
}

static netio__attempt *netio__race_verdict(netio__race *r)
{
    netio__attempt *best = NULL;
    for (size_t i = 0; i < r->started; i++)
        if (!best || netio__race_rank(r->list[i].err) >= netio__race_rank(best->err))
            best = &r->list[i];
    return best;
}

static void netio__error_text(netio_error *e, const char *what)
{
    size_t at = netio__text_z(e->text, sizeof e->text, 0, what);
    at = netio__text_z(e->text, sizeof e->text, at, ": ");
    at = netio__text_z(e->text, sizeof e->text, at, netio_strerror(e->err));
    if (e->err == NETIO_EIO && e->os_code) {
        at = netio__text_z(e->text, sizeof e->text, at, ", system error ");
        netio__text_uint(e->text, sizeof e->text, at, (unsigned)e->os_code, 10);
    }
}

static void netio__error_set(netio_error *e, int err, int stage, int os_code, const netio_addr *a,
                             const char *what)
{
    char text[NETIO_ADDR_TEXT];
    memset(e, 0, sizeof *e);
    e->err = err;
    e->stage = stage;
    e->os_code = os_code;
    if (a) e->addr = *a;
    if (!what) what = a && netio_addr_format(a, text, sizeof text) > 0 ? text : "connect";
    netio__error_text(e, what);
}

static void netio__race_report(const netio__race *r, int err, int stage, const netio_addr *a,
                               const char *address)
{
    netio_error *out = r->o->errors;
    if (!out) return;
    int code = netio__os_error();
    for (size_t i = 0; i < r->o->error_cap; i++) {
        const netio__attempt *t = i && i <= r->started ? &r->list[i - 1] : NULL;
        if (i == 0) netio__error_set(&out[0], err, stage, code, a, address);
        else if (t)
            netio__error_set(&out[i], t->err, NETIO_STAGE_CONNECT, t->os_code, &t->addr, NULL);
        else memset(&out[i], 0, sizeof out[i]);
    }
    netio__os_set_error(code);
}

static int netio__race_run(netio__race *r, netio_socket *out, netio__patience *p)
{
    netio__attempt *won = NULL;
    int err = 0;
    for (;;) {
        won = netio__race_start_due(r);
        if (won) break;
        if (netio__race_trying(r) == 0 && r->started == r->count) break; // all have failed
        int left = netio__patience_left(p);
        won = netio__race_wait(r, left, &err);
        if (won || err < 0) break;
        if (left == 0 && err == 0) {
            err = netio__patience_over(p);
            break;
        }
    }
    for (size_t i = 0; i < r->started; i++) {
        netio__attempt *t = &r->list[i];
        if (t == won || t->err != NETIO_EINPROGRESS) continue;
        if (t->socket != NETIO_INVALID_SOCKET) netio__unmake(t->socket);
        t->err = NETIO_ETIMEDOUT;
        t->os_code = 0;
    }
    if (won) {
        *out = won->socket;
        return 0;
    }
    if (err < 0) return err;
    won = netio__race_verdict(r);
    netio__os_set_error(won->os_code);
    return won->err;
}

// The addresses of one more "host:port". An error counts only if nothing else was found.
static int netio__race_add(netio__race *r, const char *address, netio__patience *p)
{
    netio_addr found[NETIO_RESOLVE_MAX];
    netio_resolve_opts how = r->o->resolve;
    if (how.family == 0) how.family = r->o->family;
    int left = p->timeout_ms <= 0 ? p->timeout_ms : netio__patience_left(p);
    if (left == 0 && p->timeout_ms > 0) return NETIO_ETIMEDOUT;
    ptrdiff_t n = netio_resolve(address, found, NETIO_RESOLVE_MAX, &how, left);
    if (n < 0) return (int)n;
    if (found[0].dual) { // ":port": this machine, in either family
        uint16_t port = netio_addr_port(&found[0]);
        netio_addr_loopback(&found[0], NETIO_IPV6, port);
        netio_addr_loopback(&found[1], NETIO_IPV4, port);
        n = 2;
    }
    for (ptrdiff_t i = 0; i < n && r->count < NETIO_RESOLVE_MAX; i++) {
        netio__attempt *t = &r->list[r->count++];
        memset(t, 0, sizeof *t);
        t->addr = found[i];
        t->socket = NETIO_INVALID_SOCKET;
    }
    return 0;
}

NETIO_API int netio_connect(netio_socket *out, const char *address, const netio_socket_opts *opts,
                            int timeout_ms)
{
    netio__race r;
    netio__patience p = netio__patient(timeout_ms);
    r.o = opts ? opts : &netio__no_opts;
    r.count = r.started = 0;
    r.stagger_ms = r.o->stagger_ms > 0 ? r.o->stagger_ms : 250;
    r.next = 0;
    if (!out || !address || r.o->stagger_ms < 0) return NETIO_EINVAL;
    if (timeout_ms > 0) netio__patience_left(&p); // the deadline begins now, lookups included
    int err = netio__race_add(&r, address, &p);
    for (size_t i = 0; i < r.o->fallback_count && err != NETIO_ETIMEDOUT; i++) {
        int more = netio__race_add(&r, r.o->fallback[i], &p);
        if (more < 0 && r.count == 0) err = more;
    }
    if (r.count == 0) {
        netio__race_report(&r, err, NETIO_STAGE_RESOLVE, NULL, address);
        return err;
    }
    err = netio__race_run(&r, out, &p);
    if (err < 0) {
        netio__attempt *t = netio__race_verdict(&r);
        netio__race_report(&r, err, NETIO_STAGE_CONNECT, t ? &t->addr : NULL, address);
    }
    return err;
}

// --- accepting, pairs --------------------------------------------------------------------------

// An address that the OS handed out.
static void netio__addr_take(netio_addr *out, const void *sa, netio__socklen len)
{
    memset(out, 0, sizeof *out);
    if ((size_t)len > sizeof out->raw) len = (netio__socklen)sizeof out->raw;
    if ((size_t)len < offsetof(struct sockaddr, sa_data)) return;
    memcpy(out->raw, sa, (size_t)len);
    out->len = (uint32_t)len;
    netio_addr_unmap(out);
}

NETIO_API int netio_accept(netio_socket *out, netio_socket listener, netio_addr *peer,
                           int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    uint64_t sa[16];
    netio__socklen len = 0;
    ptrdiff_t r;
    if (!out) return NETIO_EINVAL;
    do r = netio__os_accept(out, listener, peer ? sa : NULL, &len);
    while (netio__again(&r, listener, NETIO_EV_READ, &p));
    if (r == 0 && peer) netio__addr_take(peer, sa, len);
    if (r == 0) NETIO_ON_OP(NETIO_OP_ACCEPT, *out, 0);
    return (int)r;
}

#if NETIO__HAS_UNIX && !NETIO__WINDOWS
static int netio__pair(netio_socket out[2], int type)
{
    return netio__os_socketpair(out, netio__os_type(type));
}
#else
// Two datagram sockets on loopback, each connected to the other: nobody else's datagrams pass. What
// came between bind and connect is thrown away.
static int netio__pair_dgram(netio_socket out[2])
{
    netio_addr a[2];
    char drop[1];
    int err;
    out[0] = out[1] = NETIO_INVALID_SOCKET;
    err = netio_bind(&out[0], "127.0.0.1:0", NULL);
    if (err == 0) err = netio_bind(&out[1], "127.0.0.1:0", NULL);
    for (int i = 0; i < 2 && err == 0; i++) err = netio_local_addr(out[i], &a[i]);
    for (int i = 0; i < 2 && err == 0; i++) err = netio__os_connect(out[i], a[!i].raw, a[!i].len);
    for (int i = 0; i < 2 && err == 0; i++)
        while (netio__os_recv(out[i], drop, 1, 0) >= 0) {}
    return err;
}

// Loopback TCP. A stranger may reach the listener first: only the socket whose peer is our own, and
// whose own address is the other's peer, is taken.
static int netio__pair_stream(netio_socket out[2])
{
    netio_socket listener;
    netio_addr a, b, c;
    out[0] = out[1] = NETIO_INVALID_SOCKET;
    int err = netio_listen(&listener, "127.0.0.1:0", NULL);
    if (err < 0) return err;
    err = netio_local_addr(listener, &a);
    if (err == 0) err = netio_connect_start(&out[0], &a, NULL);
    if (err == NETIO_EINPROGRESS) err = netio_connect_finish(out[0], 5000);
    if (err == 0) err = netio_local_addr(out[0], &b);
    for (int strangers = 0; err == 0 && strangers < 16; strangers++) {
        err = netio_accept(&out[1], listener, &c, 5000);
        if (err < 0 || netio_addr_equal(&b, &c)) break;
        netio_close(&out[1]);
        err = strangers < 15 ? 0 : NETIO_ECONNREFUSED;
    }
    netio__unmake(listener);
    return err;
}

static int netio__pair(netio_socket out[2], int type)
{
    int err = type == NETIO_STREAM  ? netio__pair_stream(out)
              : type == NETIO_DGRAM ? netio__pair_dgram(out)
                                    : (int)NETIO_ENOTSUP;
    for (int i = 0; i < 2 && err < 0 && type != NETIO_SEQPACKET; i++)
        if (out[i] != NETIO_INVALID_SOCKET) netio__unmake(out[i]);
    return err;
}
#endif

NETIO_API int netio_pair(netio_socket out[2], int type)
{
    netio_socket pair[2] = {NETIO_INVALID_SOCKET, NETIO_INVALID_SOCKET};
    if (!out || netio__os_type(type) < 0) return NETIO_EINVAL;
    int err = netio__pair(pair, type);
    if (err < 0) return err;
    for (int i = 0; i < 2; i++) {
        out[i] = pair[i];
        NETIO_ON_OP(NETIO_OP_OPEN, pair[i], 0);
    }
    return 0;
}

NETIO_API int netio_adopt(netio_socket s, unsigned *found)
{
    bool nonblocking = true;
    int err = netio__os_start();
    if (err < 0) return err;
    int type = netio__socket_type(s);
    if (type < 0) return type;
    err = netio__os_get_nonblocking(s, &nonblocking);
    if (err == 0) err = netio__os_set_nonblocking(s, true);
    if (err < 0) return err;
    netio__os_no_sigpipe(s);
    if (found) *found = nonblocking;
    return 0;
}

NETIO_API int netio_release(netio_socket s, unsigned found)
{
    return netio__os_set_nonblocking(s, found != 0);
}

// --- ending ------------------------------------------------------------------------------------

NETIO_API int netio_close(netio_socket *s)
{
    if (!s || *s == NETIO_INVALID_SOCKET) return NETIO_EBADF;
    netio_socket old = *s;
    *s = NETIO_INVALID_SOCKET;
    int err = netio__os_close_socket(old);
    NETIO_ON_OP(NETIO_OP_CLOSE, old, err);
    return err;
}

NETIO_API int netio_close_gracefully(netio_socket *s, size_t max, int timeout_ms)
{
    if (!s || *s == NETIO_INVALID_SOCKET) return NETIO_EBADF;
    netio__patience p = netio__patient(timeout_ms);
    size_t dropped = 0;
    ptrdiff_t r = netio_shutdown(*s, NETIO_SHUT_WRITE);
    while (r == 0) {
        char drop[4096];
        r = netio__os_recv(*s, drop, sizeof drop, 0);
        if (r == 0) break; // the peer's end
        if (r > 0) {
            dropped += (size_t)r;
            r = dropped > max ? (ptrdiff_t)NETIO_EMSGSIZE : 0;
            if (r == 0 && p.timeout_ms > 0 && netio__patience_left(&p) == 0) r = NETIO_ETIMEDOUT;
        } else if (netio__again(&r, *s, NETIO_EV_READ, &p)) {
            r = 0;
        } else if (r == NETIO_EAGAIN) {
            r = NETIO_ETIMEDOUT;
        }
    }
    // The peer has reset it, or never was there: nothing is left to be lost.
    if (r == NETIO_ECONNRESET || r == NETIO_ENOTCONN || r == NETIO_EPIPE) r = 0;
    int code = netio__os_error(), err = netio_close(s);
    if (r < 0) netio__os_set_error(code);
    return r < 0 ? (int)r : err;
}

NETIO_API int netio_abort(netio_socket *s)
{
    struct linger reset;
    if (!s || *s == NETIO_INVALID_SOCKET) return NETIO_EBADF;
    int type = netio__socket_type(*s);
    if (type < 0) return type;
    if (type == SOCK_DGRAM) return NETIO_ENOTSUP;
    reset.l_onoff = 1;
    reset.l_linger = 0;
    netio__os_setopt(*s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    return netio_close(s);
}

NETIO_API int netio_shutdown(netio_socket s, int how)
{
    netio_addr peer;
    if (how < NETIO_SHUT_READ || how > NETIO_SHUT_BOTH) return NETIO_EINVAL;
    int err = netio__os_shutdown(s, how);
    // macOS says ENOTCONN also for a direction that is shut already.
    if (err == NETIO_ENOTCONN && netio_peer_addr(s, &peer) == 0) err = 0;
    NETIO_ON_OP(NETIO_OP_SHUTDOWN, s, err);
    return err;
}

static int netio__name(netio_socket s, netio_addr *out, bool peer)
{
    uint64_t sa[16];
    netio__socklen len = (netio__socklen)sizeof sa;
    if (!out) return NETIO_EINVAL;
    int err = netio__os_name(s, sa, &len, peer);
    if (err < 0) return err;
    netio__addr_take(out, sa, len);
    return 0;
}

NETIO_API int netio_local_addr(netio_socket s, netio_addr *out)
{
    return netio__name(s, out, false);
}

NETIO_API int netio_peer_addr(netio_socket s, netio_addr *out) { return netio__name(s, out, true); }

NETIO_API int netio_set_inheritable(netio_socket s, bool on)
{
    // On Windows its number is the handle of the process itself.
    return s == NETIO_INVALID_SOCKET ? (int)NETIO_EBADF : netio__os_set_inheritable(s, on);
}

NETIO_API int netio_wait(netio_socket s, unsigned events, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    if (events == 0 || (events & ~(unsigned)(NETIO_EV_READ | NETIO_EV_WRITE))) return NETIO_EINVAL;
    return netio__wait(s, events, &p);
}

// --- receiving ---------------------------------------------------------------------------------

// What 0 bytes mean: an empty datagram, or the end. Asked of the OS only then.
static ptrdiff_t netio__zero_or_eof(netio_socket s)
{
    int type = netio__socket_type(s);
    return type == SOCK_DGRAM || type == SOCK_RAW ? 0
           : type < 0                             ? (ptrdiff_t)type
                                                  : (ptrdiff_t)NETIO_EOF;
}

static ptrdiff_t netio__recv(netio_socket s, void *buf, size_t cap, int flags, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    ptrdiff_t r;
    if (cap == 0) return 0;
    if (!buf) return NETIO_EINVAL;
    if (cap > NETIO__IO_MAX) cap = NETIO__IO_MAX;
    do r = netio__os_recv(s, buf, cap, flags);
    while (netio__again(&r, s, NETIO_EV_READ, &p));
    if (r == 0) r = netio__zero_or_eof(s);
    NETIO_ON_OP(NETIO_OP_RECV, s, r);
    return r;
}

NETIO_API ptrdiff_t netio_recv(netio_socket s, void *buf, size_t cap, int timeout_ms)
{
    return netio__recv(s, buf, cap, 0, timeout_ms);
}

NETIO_API ptrdiff_t netio_peek(netio_socket s, void *buf, size_t cap, int timeout_ms)
{
    return netio__recv(s, buf, cap, NETIO__PEEK, timeout_ms);
}

// Pieces for one system call: at most NETIO__PIECES, and NETIO__IO_MAX bytes.
typedef struct netio__batch {
    netio__iov iov[NETIO__PIECES];
    size_t count, bytes;
} netio__batch;

static void netio__batch_add(netio__batch *b, const void *data, size_t len)
{
    if (len > NETIO__IO_MAX - b->bytes) len = NETIO__IO_MAX - b->bytes;
    if (len == 0) return;
    netio__os_iov_set(&b->iov[b->count++], data, len);
    b->bytes += len;
}

static bool netio__batch_full(const netio__batch *b)
{
    return b->count == NETIO__PIECES || b->bytes == NETIO__IO_MAX;
}

// A datagram or record goes whole: neither its pieces nor its bytes may be split.
static int netio__check_whole(netio_socket s, size_t pieces, size_t bytes)
{
    if (pieces <= NETIO__PIECES && bytes <= NETIO__IO_MAX) return 0;
    int type = netio__socket_type(s);
    return type < 0 ? type : type == SOCK_STREAM ? 0 : (int)NETIO_EMSGSIZE;
}

NETIO_API ptrdiff_t netio_recvv(netio_socket s, const netio_room *rooms, size_t count,
                                int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    netio__batch b;
    ptrdiff_t r;
    b.count = b.bytes = 0;
    if (!rooms && count) return NETIO_EINVAL;
    for (size_t i = 0; i < count; i++)
        if (rooms[i].cap && !rooms[i].data) return NETIO_EINVAL;
    int err = netio__check_whole(s, count, 0);
    if (err < 0) return err;
    // What does not fit into one call is left for the next: a stream's bytes wait.
    for (size_t i = 0; i < count && !netio__batch_full(&b); i++)
        netio__batch_add(&b, rooms[i].data, rooms[i].cap);
    if (b.count == 0) return 0;
    do r = netio__os_recvv(s, b.iov, b.count);
    while (netio__again(&r, s, NETIO_EV_READ, &p));
    if (r == 0) r = netio__zero_or_eof(s);
    NETIO_ON_OP(NETIO_OP_RECV, s, r);
    return r;
}

NETIO_API int netio_recv_exact(netio_socket s, void *buf, size_t len, size_t *done, int timeout_ms)
{
    int64_t by = timeout_ms > 0 ? netio_deadline(timeout_ms) : 0;
    size_t got = 0;
    ptrdiff_t r = 0;
    if (len && !buf) r = NETIO_EINVAL;
    while (r >= 0 && got < len) {
        // The clock is asked again only after a part has come.
        int left = timeout_ms > 0 && got ? netio_deadline_left(by) : timeout_ms;
        r = netio_recv(s, (char *)buf + got, len - got, left);
        if (r > 0) got += (size_t)r;
        // One try past the deadline; more would let a fast peer stretch it.
        if (timeout_ms > 0 && left == 0 && (r == NETIO_EAGAIN || (r > 0 && got < len)))
            r = NETIO_ETIMEDOUT;
    }
    if (done) *done = got;
    if (r == NETIO_EOF && got) return NETIO_ETRUNCATED;
    return r < 0 ? (int)r : 0;
}

// --- sending -----------------------------------------------------------------------------------

// Sending nothing: no call on a stream; a datagram of its own; on a record socket the receiver
// could not tell it from the end.
static ptrdiff_t netio__send_empty(netio_socket s, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    ptrdiff_t r;
    int type = netio__socket_type(s);
    if (type < 0) return type;
    if (type == SOCK_STREAM) return 0;
    if (type == SOCK_SEQPACKET) return NETIO_EINVAL;
    do r = netio__os_send(s, "", 0);
    while (netio__again(&r, s, NETIO_EV_WRITE, &p));
    NETIO_ON_OP(NETIO_OP_SEND, s, r);
    return r;
}

NETIO_API ptrdiff_t netio_send(netio_socket s, const void *data, size_t len, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    ptrdiff_t r;
    if (len == 0) return netio__send_empty(s, timeout_ms);
    if (!data) return NETIO_EINVAL;
    if (len > NETIO__IO_MAX) {
        int err = netio__check_whole(s, 1, len);
        if (err < 0) return err;
        len = NETIO__IO_MAX;
    }
    do r = netio__os_send(s, data, len);
    while (netio__again(&r, s, NETIO_EV_WRITE, &p));
    NETIO_ON_OP(NETIO_OP_SEND, s, r);
    return r;
}

// The pieces from byte `skip` of piece `first` on, until one call's worth is gathered.
static void netio__batch_fill(netio__batch *b, const netio_buf *bufs, size_t count, size_t first,
                              size_t skip)
{
    b->count = b->bytes = 0;
    for (; first < count && !netio__batch_full(b); first++) {
        const netio_buf *piece = &bufs[first];
        if (piece->len > skip)
            netio__batch_add(b, (const char *)piece->data + skip, piece->len - skip);
        skip -= skip < piece->len ? skip : piece->len;
    }
}

// Sends the pieces from byte `off` on, waiting for the first byte only if `p` allows; goes on while
// the OS takes all it is given. Returns the bytes sent, or an error if they are none.
static ptrdiff_t netio__sendv(netio_socket s, const netio_buf *bufs, size_t count, size_t off,
                              netio__patience *p)
{
    netio__batch b;
    size_t sent = 0, first = 0;
    while (first < count && off >= bufs[first].len) off -= bufs[first++].len;
    while (first < count) {
        ptrdiff_t r;
        netio__batch_fill(&b, bufs, count, first, off);
        if (b.count == 0) break;
        do r = netio__os_sendv(s, b.iov, b.count);
        while (sent == 0 && netio__again(&r, s, NETIO_EV_WRITE, p));
        NETIO_ON_OP(NETIO_OP_SEND, s, r);
        if (r < 0) return sent ? (ptrdiff_t)sent : r;
        sent += (size_t)r;
        if ((size_t)r < b.bytes) break;
        for (off += (size_t)r; first < count && off >= bufs[first].len; first++)
            off -= bufs[first].len;
    }
    return (ptrdiff_t)sent;
}

// The sum of the pieces; NETIO_EINVAL: a length without data, or more than a ptrdiff_t counts.
static ptrdiff_t netio__total(const netio_buf *bufs, size_t count)
{
    size_t total = 0;
    if (!bufs && count) return NETIO_EINVAL;
    for (size_t i = 0; i < count; i++) {
        if (bufs[i].len && !bufs[i].data) return NETIO_EINVAL;
        if (bufs[i].len > (size_t)PTRDIFF_MAX - total) return NETIO_EINVAL;
        total += bufs[i].len;
    }
    return (ptrdiff_t)total;
}

NETIO_API ptrdiff_t netio_sendv(netio_socket s, const netio_buf *bufs, size_t count, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    ptrdiff_t total = netio__total(bufs, count);
    if (total < 0) return total;
    int err = netio__check_whole(s, count, (size_t)total);
    if (err < 0) return err;
    if (total == 0) return netio__send_empty(s, timeout_ms);
    return netio__sendv(s, bufs, count, 0, &p);
}

NETIO_API int netio_sendv_all(netio_socket s, const netio_buf *bufs, size_t count, size_t *done,
                              int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    size_t sent = 0;
    ptrdiff_t r = 0, total = netio__total(bufs, count);
    if (done) *done = 0;
    if (total < 0) return (int)total;
    int err = netio__check_whole(s, count, (size_t)total);
    if (err < 0) return err;
    if (total == 0) return (int)netio__send_empty(s, timeout_ms);
    if (timeout_ms > 0) netio__patience_left(&p); // one deadline for all of it
    while (r >= 0 && sent < (size_t)total) {
        r = netio__sendv(s, bufs, count, sent, &p);
        if (r > 0) sent += (size_t)r;
        if (r > 0 && sent < (size_t)total && timeout_ms > 0 && netio__patience_left(&p) == 0)
            r = NETIO_ETIMEDOUT;
    }
    if (done) *done = sent;
    return r < 0 ? (int)r : 0;
}

NETIO_API int netio_send_all(netio_socket s, const void *data, size_t len, size_t *done,
                             int timeout_ms)
{
    netio_buf all;
    all.data = data;
    all.len = len;
    return netio_sendv_all(s, &all, 1, done, timeout_ms);
}

// --- files -------------------------------------------------------------------------------------

// The next bytes of the file; a pipe has no positions and is read as it comes.
static ptrdiff_t netio__read_file(netio_file file, void *buf, size_t cap, uint64_t off,
                                  uint64_t sent)
{
    ptrdiff_t n = netio__os_read_file(file, buf, cap, off + sent);
    if (n != NETIO_ENOTSUP) return n;
    return off == 0 ? netio__os_read_pipe(file, buf, cap) : (ptrdiff_t)NETIO_EINVAL;
}

static int netio__sendfile_copy(netio_socket s, netio_file file, uint64_t off, uint64_t len,
                                uint64_t *sent, netio__patience *p)
{
    while (*sent < len) {
        char buf[16384];
        netio_buf piece;
        size_t want = len - *sent < sizeof buf ? (size_t)(len - *sent) : sizeof buf, at = 0;
        ptrdiff_t n = netio__read_file(file, buf, want, off, *sent);
        if (n < 0) return (int)n;
        if (n == 0) return NETIO_ETRUNCATED;
        piece.data = buf;
        piece.len = (size_t)n;
        while (at < piece.len) {
            ptrdiff_t r = netio__sendv(s, &piece, 1, at, p);
            if (r < 0) return (int)r;
            at += (size_t)r;
            *sent += (uint64_t)r;
        }
    }
    return 0;
}

NETIO_API int netio_sendfile(netio_socket s, netio_file file, uint64_t off, uint64_t len,
                             uint64_t *done, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    uint64_t sent = 0;
    ptrdiff_t r = 0;
    if (done) *done = 0;
    if (len > UINT64_MAX - off) return NETIO_EINVAL;
    if (timeout_ms > 0) netio__patience_left(&p);
    // The kernel's path has no flag for one call: only the socket's own mode keeps it from waiting.
    bool nonblocking = true;
    if (netio__os_get_nonblocking(s, &nonblocking) == 0 && !nonblocking) r = NETIO_ENOTSUP;
    while (r >= 0 && sent < len) {
        size_t want = len - sent < NETIO__IO_MAX ? (size_t)(len - sent) : NETIO__IO_MAX;
        do r = netio__os_sendfile(s, file, off + sent, want);
        while (netio__again(&r, s, NETIO_EV_WRITE, &p));
        if (r > 0) sent += (uint64_t)r;
        if (r > 0) NETIO_ON_OP(NETIO_OP_SEND, s, r);
        if (r == 0) r = NETIO_ETRUNCATED;
    }
    if (r == NETIO_ENOTSUP) r = netio__sendfile_copy(s, file, off, len, &sent, &p);
    if (done) *done = sent;
    return r < 0 ? (int)r : 0;
}

// --- datagrams ---------------------------------------------------------------------------------

static bool netio__is_ip(const netio_addr *a)
{
    int family = netio__addr_os_family(a);
    return family == AF_INET || family == AF_INET6;
}

NETIO_API ptrdiff_t netio_recvfrom(netio_socket s, void *buf, size_t cap, netio_addr *from,
                                   int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    uint64_t sa[16];
    char none[1];
    netio__socklen len;
    ptrdiff_t r;
    if (cap && !buf) return NETIO_EINVAL;
    if (cap > NETIO__IO_MAX) cap = NETIO__IO_MAX;
    do {
        len = (netio__socklen)sizeof sa;
        r = netio__os_recvfrom(s, cap ? buf : none, cap, sa, &len);
    } while (netio__again(&r, s, NETIO_EV_READ, &p));
    if (r >= 0) {
        netio_addr sender;
        netio__addr_take(&sender, sa, len);
        // IP datagrams come with an IP sender. What has another, or none, may be no datagram.
        int type = netio__is_ip(&sender) ? SOCK_DGRAM : netio__socket_type(s);
        if (type < 0) r = type;
        if (type == SOCK_STREAM) r = NETIO_EINVAL;
        if (r == 0 && type == SOCK_SEQPACKET) r = NETIO_EOF;
        if (r >= 0 && from) *from = sender;
    }
    NETIO_ON_OP(NETIO_OP_RECV, s, r);
    return r;
}

// An IPv6 socket takes an IPv4 peer as it is on Linux; elsewhere it wants the mapped form.
static ptrdiff_t netio__sendto(netio_socket s, const void *data, size_t len, const netio_addr *to)
{
    netio__ip ip;
    netio_addr mapped;
    int code, family = 0;
    ptrdiff_t r = netio__os_sendto(s, data, len, to->raw, to->len);
    if ((r != NETIO_EINVAL && r != NETIO_EAFNOSUPPORT) || netio_addr_family(to) != NETIO_IPV4)
        return r;
    code = netio__os_error();
    if (netio__os_family(s, &family) == 0 && family == AF_INET6) {
        netio__addr_get_ip(&ip, to);
        netio__ip_map(&ip);
        netio__addr_set_ip(&mapped, &ip);
        return netio__os_sendto(s, data, len, mapped.raw, mapped.len);
    }
    netio__os_set_error(code);
    return r;
}

NETIO_API ptrdiff_t netio_sendto(netio_socket s, const void *data, size_t len, const netio_addr *to,
                                 int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    netio_addr peer;
    ptrdiff_t r;
    if (!to || to->len == 0) return netio_send(s, data, len, timeout_ms);
    if (len && !data) return NETIO_EINVAL;
    if (len > NETIO__IO_MAX) return NETIO_EMSGSIZE;
    peer = *to;
    netio_addr_unmap(&peer);
    netio__to_loopback(&peer);
    do r = netio__sendto(s, len ? data : "", len, &peer);
    while (netio__again(&r, s, NETIO_EV_WRITE, &p));
    NETIO_ON_OP(NETIO_OP_SEND, s, r);
    return r;
}

// --- batches -----------------------------------------------------------------------------------

// IP datagrams come with an IP sender. What has another, or none, may be no datagram at all; and of
// records the first empty one is the end.
static ptrdiff_t netio__batch_check(netio_socket s, const netio_datagram *msgs, ptrdiff_t n)
{
    if (n <= 0 || netio__is_ip(&msgs[0].peer)) return n;
    int type = netio__socket_type(s);
    if (type < 0 || type == SOCK_STREAM) return type < 0 ? type : (ptrdiff_t)NETIO_EINVAL;
    for (ptrdiff_t i = 0; type == SOCK_SEQPACKET && i < n; i++)
        if (msgs[i].full == 0) return i ? i : (ptrdiff_t)NETIO_EOF;
    return n;
}

// The kernel gives a destination's interface beside it: in an address it is the zone.
static void netio__local_zone(netio_datagram *m)
{
    netio__ip ip;
    if (!m->local.len || !netio__addr_get_ip(&ip, &m->local) || !netio__ip_link_scope(&ip)) return;
    ip.scope = m->ifindex;
    netio__addr_set_ip(&m->local, &ip);
}

NETIO_API ptrdiff_t netio_recv_batch(netio_socket s, netio_datagram *msgs, size_t count,
                                     int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    size_t done = 0, want;
    ptrdiff_t r = 0;
    if (!msgs || count == 0) return NETIO_EINVAL;
    for (size_t i = 0; i < count; i++)
        if (msgs[i].cap && !msgs[i].data) return NETIO_EINVAL;
    do {
        want = count - done < NETIO__BATCH ? count - done : NETIO__BATCH;
        do r = netio__os_recv_batch(s, msgs + done, want);
        while (done == 0 && netio__again(&r, s, NETIO_EV_READ, &p));
        r = netio__batch_check(s, msgs + done, r);
        for (ptrdiff_t i = 0; i < r; i++) {
            netio__local_zone(&msgs[done + (size_t)i]);
            NETIO_ON_OP(NETIO_OP_RECV, s, (ptrdiff_t)msgs[done + (size_t)i].len);
        }
        if (r > 0) done += (size_t)r;
    } while (r == (ptrdiff_t)want && done < count);
    if (done == 0) NETIO_ON_OP(NETIO_OP_RECV, s, r);
    return done ? (ptrdiff_t)done : r;
}

static bool netio__has_segments(const netio_datagram *m)
{
    return m->segment && m->segment < m->len;
}

#if NETIO__LINUX
// The kernel cuts IP datagrams, up to 64 KiB in all; a device or a route may refuse at any time,
// with EIO or EINVAL.
static bool netio__segments_by_hand(netio_socket s, const netio_datagram *m)
{
    int family = 0;
    if (!netio__has_segments(m) || netio__is_ip(&m->peer)) return false;
    return netio__os_family(s, &family) == 0 && family != AF_INET && family != AF_INET6;
}

static bool netio__segments_refused(const netio_datagram *m, ptrdiff_t r)
{
    return netio__has_segments(m) && (r == NETIO_EINVAL || r == NETIO_EIO || r == NETIO_EMSGSIZE);
}
#elif NETIO__WINDOWS
static bool netio__segments_by_hand(netio_socket s, const netio_datagram *m)
{
    return netio__has_segments(m) && !netio__win_cuts(s);
}

static bool netio__segments_refused(const netio_datagram *m, ptrdiff_t r)
{
    return netio__has_segments(m) &&
           (r == NETIO_EINVAL || r == NETIO_ENOTSUP || r == NETIO_EMSGSIZE || r == NETIO_EIO);
}
#else
static bool netio__segments_by_hand(netio_socket s, const netio_datagram *m)
{
    (void)s;
    return netio__has_segments(m);
}

static bool netio__segments_refused(const netio_datagram *m, ptrdiff_t r)
{
    (void)m, (void)r;
    return false;
}
#endif

// One datagram; an IPv6 socket elsewhere than on Linux wants an IPv4 peer in the mapped form.
static ptrdiff_t netio__send_one(netio_socket s, const netio_datagram *m)
{
    netio_datagram one = *m;
    netio__ip ip;
    int family = 0;
    ptrdiff_t r = netio__os_send_batch(s, &one, 1);
    if ((r != NETIO_EINVAL && r != NETIO_EAFNOSUPPORT) || !netio__addr_get_ip(&ip, &one.peer) ||
        ip.family != NETIO_IPV4 || netio__os_family(s, &family) < 0 || family != AF_INET6)
        return r;
    netio__ip_map(&ip);
    netio__addr_set_ip(&one.peer, &ip);
    return netio__os_send_batch(s, &one, 1);
}

// What a system does not do in one call: the pieces of a segmented datagram, one by one. `*from`:
// where to go on after NETIO_EAGAIN.
static ptrdiff_t netio__send_segments(netio_socket s, const netio_datagram *m, size_t *from)
{
    ptrdiff_t r = 1;
    while (*from < m->len && r > 0) {
        netio_datagram piece = *m;
        piece.data = (char *)m->data + *from;
        piece.len = m->len - *from < m->segment ? m->len - *from : m->segment;
        piece.segment = 0;
        r = netio__send_one(s, &piece);
        if (r > 0) *from += piece.len;
    }
    return r;
}

// Addresses that must be rewritten: mapped IPv4, or a peer "any", which means this machine.
static bool netio__peer_odd(const netio_datagram *m)
{
    static const uint8_t zero[10] = {0};
    const uint8_t *raw = (const uint8_t *)m->peer.raw;
    int family = netio__addr_os_family(&m->peer);
    if (m->local.len && (netio_addr_class(&m->local) & NETIO_ADDR_MAPPED)) return true;
    if (family == AF_INET)
        return memcmp(raw + offsetof(struct sockaddr_in, sin_addr), zero, 4) == 0;
    if (family != AF_INET6) return false;
    return memcmp(raw + offsetof(struct sockaddr_in6, sin6_addr), zero, 10) == 0 &&
           (netio_addr_class(&m->peer) & (NETIO_ADDR_MAPPED | NETIO_ADDR_ANY));
}

// How many can go in one call as they are.
static size_t netio__send_run(netio_socket s, const netio_datagram *msgs, size_t count)
{
    size_t n = 0;
    if (count > NETIO__BATCH) count = NETIO__BATCH;
    while (n < count && !netio__peer_odd(&msgs[n]) && !netio__segments_by_hand(s, &msgs[n])) n++;
    return n;
}

static ptrdiff_t netio__send_some(netio_socket s, const netio_datagram *msgs, size_t count,
                                  size_t *from)
{
    netio_datagram one;
    size_t run = *from ? 0 : netio__send_run(s, msgs, count);
    ptrdiff_t r = run ? netio__os_send_batch(s, msgs, run) : 0;
    bool unlike =
        (r == NETIO_EINVAL || r == NETIO_EAFNOSUPPORT) &&
        netio_addr_family(&msgs->peer) == NETIO_IPV4; // perhaps it is the form of the peer
    if (run && !unlike && !netio__segments_refused(msgs, r)) return r;
    one = *msgs;
    netio_addr_unmap(&one.peer);
    netio_addr_unmap(&one.local);
    netio__to_loopback(&one.peer);
    r = netio__has_segments(&one) ? netio__send_segments(s, &one, from) : netio__send_one(s, &one);
    if (r > 0) *from = 0;
    return r;
}

static int netio__unmapped_family(const netio_addr *a)
{
    return netio_addr_class(a) & NETIO_ADDR_MAPPED ? (int)NETIO_IPV4 : netio_addr_family(a);
}

static bool netio__source_fits(const netio_datagram *m)
{
    int local = netio__unmapped_family(&m->local);
    return (local == NETIO_IPV4 || local == NETIO_IPV6) &&
           (m->peer.len == 0 || netio__unmapped_family(&m->peer) == local);
}

// Streams would take a part and call it done; on record sockets an empty one looks like the end.
static int netio__send_batch_check(netio_socket s, const netio_datagram *msgs, size_t count)
{
    bool empty = false, ip = true;
    for (size_t i = 0; i < count; i++) {
        if (msgs[i].len && !msgs[i].data) return NETIO_EINVAL;
        if (msgs[i].len > NETIO__IO_MAX) return NETIO_EMSGSIZE;
        if (msgs[i].len == 0) empty = true;
        if (msgs[i].local.len && !netio__source_fits(&msgs[i])) return NETIO_EINVAL;
        if (!netio__is_ip(&msgs[i].peer)) ip = false;
    }
    if (ip) return 0;
    int type = netio__socket_type(s);
    if (type < 0) return type;
    return type == SOCK_STREAM || (type == SOCK_SEQPACKET && empty) ? (int)NETIO_EINVAL : 0;
}

NETIO_API ptrdiff_t netio_send_batch(netio_socket s, const netio_datagram *msgs, size_t count,
                                     int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    size_t done = 0, from = 0;
    ptrdiff_t r = 1;
    if (!msgs || count == 0) return NETIO_EINVAL;
    int err = netio__send_batch_check(s, msgs, count);
    if (err < 0) return err;
    while (r > 0 && done < count) {
        do r = netio__send_some(s, msgs + done, count - done, &from);
        while (netio__again(&r, s, NETIO_EV_WRITE, &p));
        for (ptrdiff_t i = 0; i < r; i++)
            NETIO_ON_OP(NETIO_OP_SEND, s, (ptrdiff_t)msgs[done + (size_t)i].len);
        if (r > 0) done += (size_t)r;
    }
    if (done == 0) NETIO_ON_OP(NETIO_OP_SEND, s, r);
    return done ? (ptrdiff_t)done : r;
}

// --- multicast ---------------------------------------------------------------------------------

#if defined(MCAST_JOIN_GROUP)
// RFC 3678: one call for both families.
static int netio__multicast_any(netio_socket s, int level, bool join, const netio_addr *group,
                                uint32_t ifindex)
{
    struct group_req r;
    memset(&r, 0, sizeof r);
    r.gr_interface = ifindex;
    memcpy(&r.gr_group, group->raw, group->len);
    return netio__os_setopt(s, level, join ? MCAST_JOIN_GROUP : MCAST_LEAVE_GROUP, &r, sizeof r);
}

static int netio__multicast_source(netio_socket s, int level, bool join, const netio_addr *group,
                                   uint32_t ifindex, const netio_addr *source)
{
    struct group_source_req r;
    memset(&r, 0, sizeof r);
    r.gsr_interface = ifindex;
    memcpy(&r.gsr_group, group->raw, group->len);
    memcpy(&r.gsr_source, source->raw, source->len);
    return netio__os_setopt(s, level, join ? MCAST_JOIN_SOURCE_GROUP : MCAST_LEAVE_SOURCE_GROUP, &r,
                            sizeof r);
}
#else
static int netio__multicast_any(netio_socket s, int level, bool join, const netio_addr *group,
                                uint32_t ifindex)
{
    (void)s, (void)level, (void)join, (void)group, (void)ifindex;
    return NETIO_ENOTSUP;
}

static int netio__multicast_source(netio_socket s, int level, bool join, const netio_addr *group,
                                   uint32_t ifindex, const netio_addr *source)
{
    (void)source;
    return netio__multicast_any(s, level, join, group, ifindex);
}
#endif

static bool netio__interface_is_ipv4(const netio_interface *i, const void *arg)
{
    return netio__interface_has_index(i, arg) && netio_addr_family(&i->addr) == NETIO_IPV4;
}

// The address of an interface, for calls that know no numbers. Any address for 0.
static int netio__interface_ipv4(uint32_t ifindex, struct in_addr *out)
{
    netio_interface found;
    memset(out, 0, sizeof *out);
    if (ifindex == 0) return 0;
    if (!netio__interface_find(netio__interface_is_ipv4, &ifindex, &found)) return NETIO_ENODEV;
    memcpy(out, netio_addr_ip(&found.addr).data, 4);
    return 0;
}

#if defined(IP_ADD_SOURCE_MEMBERSHIP)
static int netio__multicast_old_source(netio_socket s, bool join, const netio_addr *group,
                                       uint32_t ifindex, const netio_addr *source)
{
    struct ip_mreq_source m;
    if (netio_addr_family(group) != NETIO_IPV4) return NETIO_ENOTSUP; // IPv6 has no such call
    memset(&m, 0, sizeof m);
    memcpy(&m.imr_multiaddr, netio_addr_ip(group).data, 4);
    memcpy(&m.imr_sourceaddr, netio_addr_ip(source).data, 4);
    int err = netio__interface_ipv4(ifindex, &m.imr_interface);
    if (err < 0) return err;
    return netio__os_setopt(
        s, IPPROTO_IP, join ? IP_ADD_SOURCE_MEMBERSHIP : IP_DROP_SOURCE_MEMBERSHIP, &m, sizeof m);
}
#else
static int netio__multicast_old_source(netio_socket s, bool join, const netio_addr *group,
                                       uint32_t ifindex, const netio_addr *source)
{
    (void)s, (void)join, (void)group, (void)ifindex, (void)source;
    return NETIO_ENOTSUP;
}
#endif

// The older calls, one for each family: macOS and BSD without an interface, OpenBSD, NetBSD, Wine.
static int netio__multicast_old(netio_socket s, bool join, const netio_addr *group,
                                uint32_t ifindex, const netio_addr *source)
{
    struct ip_mreq m4;
    struct ipv6_mreq m6;
    netio_buf ip = netio_addr_ip(group);
    if (source) return netio__multicast_old_source(s, join, group, ifindex, source);
    if (ip.len == 16) {
        memset(&m6, 0, sizeof m6);
        memcpy(&m6.ipv6mr_multiaddr, ip.data, 16);
        m6.ipv6mr_interface = ifindex;
        return netio__os_setopt(s, IPPROTO_IPV6, join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, &m6,
                                sizeof m6);
    }
    memset(&m4, 0, sizeof m4);
    memcpy(&m4.imr_multiaddr, ip.data, 4);
    int err = netio__interface_ipv4(ifindex, &m4.imr_interface);
    return err < 0 ? err
                   : netio__os_setopt(s, IPPROTO_IP, join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP,
                                      &m4, sizeof m4);
}

static int netio__multicast(netio_socket s, bool join, const netio_addr *group, uint32_t ifindex,
                            const netio_addr *source)
{
    netio_addr g, from;
    if (!group) return NETIO_EINVAL;
    g = *group;
    netio_addr_unmap(&g);
    if (!(netio_addr_class(&g) & NETIO_ADDR_MULTICAST)) return NETIO_EINVAL;
    if (source) {
        from = *source;
        netio_addr_unmap(&from);
        if (netio_addr_family(&from) != netio_addr_family(&g)) return NETIO_EINVAL;
    }
    if (ifindex == 0) ifindex = netio_addr_scope(&g);
    int family = 0;
    if (netio__os_family(s, &family) == 0 && family == AF_INET &&
        netio_addr_family(&g) == NETIO_IPV6)
        return NETIO_EINVAL;
    int level = netio_addr_family(&g) == NETIO_IPV4 ? (int)IPPROTO_IP : (int)IPPROTO_IPV6;
    // On macOS and the BSDs the calls of RFC 3678 do not choose an interface; the older ones do.
    int err = NETIO__BSD && ifindex == 0 ? (int)NETIO_ENOTSUP
              : source ? netio__multicast_source(s, level, join, &g, ifindex, &from)
                       : netio__multicast_any(s, level, join, &g, ifindex);
    if (err == NETIO_ENOTSUP)
        err = netio__multicast_old(s, join, &g, ifindex, source ? &from : NULL);
    if (err == 0 && join) netio__os_own_groups(s);
    if (err == NETIO_EADDRINUSE) return NETIO_EEXIST;
    if (err == NETIO_EADDRNOTAVAIL) // also what Linux says of a source that is joined already
        return !join ? (int)NETIO_ENOENT : source ? (int)NETIO_EEXIST : (int)NETIO_ENODEV;
    return err;
}

NETIO_API int netio_multicast_join(netio_socket s, const netio_addr *group, uint32_t ifindex,
                                   const netio_addr *source)
{
    return netio__multicast(s, true, group, ifindex, source);
}

NETIO_API int netio_multicast_leave(netio_socket s, const netio_addr *group, uint32_t ifindex,
                                    const netio_addr *source)
{
    return netio__multicast(s, false, group, ifindex, source);
}

// --- descriptors, credentials ------------------------------------------------------------------

#if NETIO__HAS_UNIX
static int netio__check_unix(netio_socket s)
{
    int family = 0;
    int err = netio__os_family(s, &family);
    if (err < 0) return err;
    return family == AF_UNIX ? 0 : NETIO_EINVAL;
}

NETIO_API ptrdiff_t netio_send_fds(netio_socket s, const void *data, size_t len,
                                   const netio_socket *fds, size_t count, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    ptrdiff_t r;
    if (!data || len == 0 || (!fds && count)) return NETIO_EINVAL;
    if (count > NETIO_FDS_MAX) return NETIO_EMSGSIZE;
    if (NETIO__WINDOWS) return NETIO_ENOTSUP;
    int err = netio__check_unix(s);
    if (err < 0) return err;
    do r = netio__os_send_fds(s, data, len < NETIO__IO_MAX ? len : NETIO__IO_MAX, fds, count);
    while (netio__again(&r, s, NETIO_EV_WRITE, &p));
    NETIO_ON_OP(NETIO_OP_SEND, s, r);
    return r;
}

NETIO_API ptrdiff_t netio_recv_fds(netio_socket s, void *buf, size_t cap, netio_socket *fds,
                                   size_t *count, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    size_t room = count ? *count : 0;
    ptrdiff_t r;
    if (!count) return NETIO_EINVAL;
    *count = 0;
    if (!buf || cap == 0 || (!fds && room)) return NETIO_EINVAL;
    if (NETIO__WINDOWS) return NETIO_ENOTSUP;
    int err = netio__check_unix(s);
    if (err < 0) return err;
    do {
        *count = room < NETIO_FDS_MAX ? room : NETIO_FDS_MAX;
        r = netio__os_recv_fds(s, buf, cap < NETIO__IO_MAX ? cap : NETIO__IO_MAX, fds, count);
    } while (netio__again(&r, s, NETIO_EV_READ, &p));
    if (r == 0) r = netio__zero_or_eof(s);
    if (r == NETIO_EOF) { // an empty record may bring some
        for (size_t i = 0; i < *count; i++) netio__os_close(fds[i]);
        *count = 0;
    }
    NETIO_ON_OP(NETIO_OP_RECV, s, r);
    return r;
}

NETIO_API int netio_peer_cred(netio_socket s, netio_cred *out)
{
    netio_cred cred;
    if (!out) return NETIO_EINVAL;
    int err = netio__check_unix(s);
    if (err < 0) return err == NETIO_EINVAL ? (int)NETIO_ENOTSUP : err;
    err = netio__os_peer_cred(s, &cred);
    if (err == 0) *out = cred;
    return err;
}
#endif // NETIO__HAS_UNIX

// --- asking by datagram ------------------------------------------------------------------------

// An answer to the question, before `by`. Others' datagrams are dropped; a refusal is no answer
// yet, the peer may be starting.
static ptrdiff_t netio__query_wait(netio_socket s, const netio_addr *to, netio_room answer,
                                   bool (*match)(void *user, netio_buf got), void *user, int64_t by)
{
    // To a group anybody may answer, from an address of his own.
    bool many = (netio_addr_class(to) & (NETIO_ADDR_MULTICAST | NETIO_ADDR_BROADCAST)) != 0;
    for (;;) {
        netio_addr from;
        netio_buf got;
        ptrdiff_t n = netio_recvfrom(s, answer.data, answer.cap, &from, netio_deadline_left(by));
        if (n == NETIO_ECONNREFUSED && netio_deadline_left(by) > 0) continue;
        if (n == NETIO_EAGAIN || n == NETIO_ECONNREFUSED) return NETIO_ETIMEDOUT;
        if (n < 0) return n;
        got.data = answer.data;
        got.len = (size_t)n < answer.cap ? (size_t)n : answer.cap;
        if (!many && !netio_addr_equal(&from, to)) continue;
        if (!match || match(user, got)) return n;
    }
}

NETIO_API ptrdiff_t netio_query(netio_socket s, const netio_addr *to, netio_buf request,
                                netio_room answer, bool (*match)(void *user, netio_buf got),
                                void *user, int tries, int first_ms)
{
    netio_addr peer;
    ptrdiff_t r = NETIO_ETIMEDOUT;
    if (!to || tries <= 0 || first_ms <= 0) return NETIO_EINVAL;
    if ((answer.cap && !answer.data) || (request.len && !request.data)) return NETIO_EINVAL;
    peer = *to;
    netio_addr_unmap(&peer);
    netio__to_loopback(&peer);
    for (int i = 0; i < tries && r == NETIO_ETIMEDOUT; i++) {
        int64_t by = netio_deadline(first_ms);
        r = netio_sendto(s, request.data, request.len, &peer, first_ms);
        if (r < 0 && r != NETIO_ECONNREFUSED) return r;
        r = netio__query_wait(s, &peer, answer, match, user, by);
        first_ms = first_ms > INT32_MAX / 2 ? INT32_MAX : first_ms * 2;
    }
    return r;
}

//================================================================================================
// >>option.c
//
// One table: a row for each option, with what the OS calls it, for which sockets it is, and its
// range. What a system lacks has no number there. The functions only follow the row.
//================================================================================================

#define NETIO__NO_OPTION INT32_MIN

#if defined(TCP_CORK)
#define NETIO__OS_CORK TCP_CORK
#elif defined(TCP_NOPUSH)
#define NETIO__OS_CORK TCP_NOPUSH
#else
#define NETIO__OS_CORK NETIO__NO_OPTION
#endif
#if defined(TCP_QUICKACK)
#define NETIO__OS_QUICKACK TCP_QUICKACK
#else
#define NETIO__OS_QUICKACK NETIO__NO_OPTION
#endif
#if defined(TCP_KEEPIDLE)
#define NETIO__OS_KEEPIDLE TCP_KEEPIDLE
#elif defined(TCP_KEEPALIVE)
#define NETIO__OS_KEEPIDLE TCP_KEEPALIVE
#else
#define NETIO__OS_KEEPIDLE NETIO__NO_OPTION
#endif
#if defined(TCP_KEEPINTVL)
#define NETIO__OS_KEEPINTVL TCP_KEEPINTVL
#else
#define NETIO__OS_KEEPINTVL NETIO__NO_OPTION
#endif
#if defined(TCP_KEEPCNT)
#define NETIO__OS_KEEPCNT TCP_KEEPCNT
#else
#define NETIO__OS_KEEPCNT NETIO__NO_OPTION
#endif
#if defined(TCP_USER_TIMEOUT)
#define NETIO__OS_USER_TIMEOUT TCP_USER_TIMEOUT
#else
#define NETIO__OS_USER_TIMEOUT NETIO__NO_OPTION
#endif
#if defined(SO_REUSEPORT)
#define NETIO__OS_REUSEPORT SO_REUSEPORT
#else
#define NETIO__OS_REUSEPORT NETIO__NO_OPTION
#endif
#if defined(TCP_FASTOPEN)
#define NETIO__OS_FASTOPEN TCP_FASTOPEN
#else
#define NETIO__OS_FASTOPEN NETIO__NO_OPTION
#endif
#if defined(TCP_FASTOPEN_CONNECT)
#define NETIO__OS_FASTOPEN_CONNECT TCP_FASTOPEN_CONNECT
#else
#define NETIO__OS_FASTOPEN_CONNECT NETIO__NO_OPTION
#endif
#if defined(TCP_CONGESTION)
#define NETIO__OS_CONGESTION TCP_CONGESTION
#else
#define NETIO__OS_CONGESTION NETIO__NO_OPTION
#endif
#if defined(SO_MARK)
#define NETIO__OS_MARK SO_MARK
#else
#define NETIO__OS_MARK NETIO__NO_OPTION
#endif
#if defined(IPV6_TCLASS)
#define NETIO__OS_TCLASS IPV6_TCLASS
#else
#define NETIO__OS_TCLASS NETIO__NO_OPTION
#endif
#if defined(SO_BUSY_POLL)
#define NETIO__OS_BUSY_POLL SO_BUSY_POLL
#else
#define NETIO__OS_BUSY_POLL NETIO__NO_OPTION
#endif
#if defined(TCP_NOTSENT_LOWAT)
#define NETIO__OS_NOTSENT_LOWAT TCP_NOTSENT_LOWAT
#else
#define NETIO__OS_NOTSENT_LOWAT NETIO__NO_OPTION
#endif
#if defined(SO_ACCEPTCONN)
#define NETIO__OS_LISTENING SO_ACCEPTCONN
#else
#define NETIO__OS_LISTENING NETIO__NO_OPTION
#endif
#if defined(IP_MTU)
#define NETIO__OS_MTU IP_MTU
#else
#define NETIO__OS_MTU NETIO__NO_OPTION
#endif
#if defined(IPV6_MTU)
#define NETIO__OS_MTU6 IPV6_MTU
#else
#define NETIO__OS_MTU6 NETIO__NO_OPTION
#endif
#if defined(IP_HDRINCL)
#define NETIO__OS_HDRINCL IP_HDRINCL
#else
#define NETIO__OS_HDRINCL NETIO__NO_OPTION
#endif

// Windows has these since 10 (1709), its headers later. Older systems refuse the number.
#if NETIO__WINDOWS
#undef NETIO__OS_KEEPIDLE
#undef NETIO__OS_KEEPINTVL
#undef NETIO__OS_KEEPCNT
#undef NETIO__OS_TCLASS
#undef NETIO__OS_FASTOPEN
#define NETIO__OS_FASTOPEN 15 // since 10 (1607); on or off, not a length
#define NETIO__OS_KEEPIDLE 3
#define NETIO__OS_KEEPINTVL 17
#define NETIO__OS_KEEPCNT 16
#define NETIO__OS_TCLASS NETIO__NO_OPTION
#define NETIO__OS_TOS NETIO__NO_OPTION // accepted and ignored there
#define NETIO__OS_EXCLUSIVE SO_EXCLUSIVEADDRUSE
#define NETIO__OS_REUSEADDR NETIO__NO_OPTION // another meaning: it lets others take the port
#else
#define NETIO__OS_TOS IP_TOS
#define NETIO__OS_EXCLUSIVE NETIO__NO_OPTION
#define NETIO__OS_REUSEADDR SO_REUSEADDR
#endif

// Don't-fragment: path-MTU discovery on Linux, with values of its own.
#if NETIO__LINUX
#define NETIO__OS_DONTFRAG IP_MTU_DISCOVER
#define NETIO__OS_DONTFRAG6 IPV6_MTU_DISCOVER
#define NETIO__DONTFRAG_ON IP_PMTUDISC_DO
#define NETIO__DONTFRAG_OFF IP_PMTUDISC_DONT
#elif NETIO__WINDOWS
#define NETIO__OS_DONTFRAG 14
#define NETIO__OS_DONTFRAG6 14
#elif defined(IP_DONTFRAG) && defined(IPV6_DONTFRAG)
#define NETIO__OS_DONTFRAG IP_DONTFRAG
#define NETIO__OS_DONTFRAG6 IPV6_DONTFRAG
#else
#define NETIO__OS_DONTFRAG NETIO__NO_OPTION
#define NETIO__OS_DONTFRAG6 NETIO__NO_OPTION
#endif
#ifndef NETIO__DONTFRAG_ON
#define NETIO__DONTFRAG_ON 1
#define NETIO__DONTFRAG_OFF 0
#endif

// One interface only: by name on Linux, by number on macOS.
#if NETIO__LINUX
#define NETIO__OS_DEVICE SO_BINDTODEVICE
#define NETIO__OS_DEVICE6 SO_BINDTODEVICE
#elif NETIO__APPLE
#define NETIO__OS_DEVICE IP_BOUND_IF
#define NETIO__OS_DEVICE6 IPV6_BOUND_IF
#else
#define NETIO__OS_DEVICE NETIO__NO_OPTION
#define NETIO__OS_DEVICE6 NETIO__NO_OPTION
#endif

// What comes along with datagrams.
#if NETIO__WINDOWS
#define NETIO__OS_RECV_LOCAL NETIO__WIN_PKTINFO
#define NETIO__OS_RECV_LOCAL6 NETIO__WIN_PKTINFO
#define NETIO__OS_RECV_TTL NETIO__WIN_TTL
#define NETIO__OS_RECV_TTL6 NETIO__WIN_TTL
#define NETIO__OS_RECV_TOS NETIO__WIN_TOS
#define NETIO__OS_RECV_TOS6 NETIO__WIN_TOS
#define NETIO__OS_RECV_TIME NETIO__NO_OPTION
#define NETIO__OS_UDP_LEVEL IPPROTO_UDP
#define NETIO__OS_RECV_SEGMENTS NETIO__WIN_COALESCED
#else
#if defined(IP_PKTINFO) && !defined(IP_RECVPKTINFO)
#define NETIO__OS_RECV_LOCAL IP_PKTINFO
#elif defined(IP_PKTINFO)
#define NETIO__OS_RECV_LOCAL IP_RECVPKTINFO
#elif defined(IP_RECVDSTADDR)
#define NETIO__OS_RECV_LOCAL IP_RECVDSTADDR
#else
#define NETIO__OS_RECV_LOCAL NETIO__NO_OPTION
#endif
#define NETIO__OS_RECV_LOCAL6 IPV6_RECVPKTINFO
#define NETIO__OS_RECV_TTL IP_RECVTTL
#define NETIO__OS_RECV_TTL6 IPV6_RECVHOPLIMIT
#if defined(IP_RECVTOS)
#define NETIO__OS_RECV_TOS IP_RECVTOS
#else
#define NETIO__OS_RECV_TOS NETIO__NO_OPTION
#endif
#define NETIO__OS_RECV_TOS6 IPV6_RECVTCLASS
#define NETIO__OS_UDP_LEVEL NETIO__SOL_UDP
#if NETIO__LINUX
#define NETIO__OS_RECV_TIME SO_TIMESTAMPNS
#define NETIO__OS_RECV_SEGMENTS NETIO__UDP_GRO
#else
#define NETIO__OS_RECV_TIME SO_TIMESTAMP
#define NETIO__OS_RECV_SEGMENTS NETIO__NO_OPTION
#endif
#endif
#if NETIO__LINUX
#define NETIO__OS_DROPS 55 // SO_MEMINFO
#else
#define NETIO__OS_DROPS NETIO__NO_OPTION
#endif

#if NETIO__APPLE && defined(SO_LINGER_SEC)
#define NETIO__OS_LINGER SO_LINGER_SEC // SO_LINGER counts ticks there
#define NETIO__LINGER_MAX 327          // kept in a short, as hundredths
#else
#define NETIO__OS_LINGER SO_LINGER
#define NETIO__LINGER_MAX 32767
#endif

enum { // how the value looks to the OS
    NETIO__KIND_INT,
    NETIO__KIND_TIME,     // ms, struct timeval or DWORD
    NETIO__KIND_LINGER,   // seconds, struct linger
    NETIO__KIND_DONTFRAG, // 0, 1, other numbers there
    NETIO__KIND_SEGMENTS, // 0, 1; on Windows a size
    NETIO__KIND_FASTOPEN, // int, if the system's switch is on
    NETIO__KIND_TEXT,
    NETIO__KIND_DEVICE,
    NETIO__KIND_MULTICAST_IF,
    NETIO__KIND_ERROR, // from here on read only
    NETIO__KIND_TYPE,
    NETIO__KIND_FAMILY,
    NETIO__KIND_READABLE,
    NETIO__KIND_UNSENT,
    NETIO__KIND_DROPS
};

enum { // for which sockets
    NETIO__FOR_STREAM = 1,
    NETIO__FOR_DGRAM = 2,
    NETIO__FOR_IP = 4,
    NETIO__FOR_IPV6 = 8, // others: NETIO_EINVAL
    NETIO__FOR_UNBOUND = 16,
    NETIO__FOR_TCP = NETIO__FOR_STREAM | NETIO__FOR_IP,
    NETIO__FOR_UDP = NETIO__FOR_DGRAM | NETIO__FOR_IP,
    NETIO__BY_FAMILY = 32, // another level and number on IPv6 sockets
    NETIO__READ_ONLY = 64,
    NETIO__FOR_RAW = 128 // which needs rights that a probe may not have
};

typedef struct netio__option_row {
    int option;
    const char *name;
    int kind;
    unsigned flags;
    int min, max;
    int level, os, os6; // os6 at IPPROTO_IPV6
} netio__option_row;

// clang-format off
#define NETIO__NO NETIO__NO_OPTION
static const netio__option_row netio__options[] = {
    {NETIO_OPT_NODELAY, "NODELAY", NETIO__KIND_INT, NETIO__FOR_TCP,
     0, 1, IPPROTO_TCP, TCP_NODELAY, NETIO__NO},
    {NETIO_OPT_CORK, "CORK", NETIO__KIND_INT, NETIO__FOR_TCP,
     0, 1, IPPROTO_TCP, NETIO__OS_CORK, NETIO__NO},
    {NETIO_OPT_QUICKACK, "QUICKACK", NETIO__KIND_INT, NETIO__FOR_TCP,
     0, 1, IPPROTO_TCP, NETIO__OS_QUICKACK, NETIO__NO},
    {NETIO_OPT_KEEPALIVE, "KEEPALIVE", NETIO__KIND_INT, NETIO__FOR_TCP,
     0, 1, SOL_SOCKET, SO_KEEPALIVE, NETIO__NO},
    {NETIO_OPT_KEEPIDLE, "KEEPIDLE", NETIO__KIND_INT, NETIO__FOR_TCP,
     1, 32767, IPPROTO_TCP, NETIO__OS_KEEPIDLE, NETIO__NO},
    {NETIO_OPT_KEEPINTVL, "KEEPINTVL", NETIO__KIND_INT, NETIO__FOR_TCP,
     1, 32767, IPPROTO_TCP, NETIO__OS_KEEPINTVL, NETIO__NO},
    {NETIO_OPT_KEEPCNT, "KEEPCNT", NETIO__KIND_INT, NETIO__FOR_TCP,
     1, 127, IPPROTO_TCP, NETIO__OS_KEEPCNT, NETIO__NO},
    {NETIO_OPT_USER_TIMEOUT, "USER_TIMEOUT", NETIO__KIND_INT, NETIO__FOR_TCP,
     0, INT32_MAX, IPPROTO_TCP, NETIO__OS_USER_TIMEOUT, NETIO__NO},
    {NETIO_OPT_LINGER, "LINGER", NETIO__KIND_LINGER, NETIO__FOR_TCP,
     -1, NETIO__LINGER_MAX, SOL_SOCKET, NETIO__OS_LINGER, NETIO__NO},
    {NETIO_OPT_SNDBUF, "SNDBUF", NETIO__KIND_INT, 0,
     1, INT32_MAX, SOL_SOCKET, SO_SNDBUF, NETIO__NO},
    {NETIO_OPT_RCVBUF, "RCVBUF", NETIO__KIND_INT, 0,
     1, INT32_MAX, SOL_SOCKET, SO_RCVBUF, NETIO__NO},
    {NETIO_OPT_SNDTIMEO, "SNDTIMEO", NETIO__KIND_TIME, 0,
     0, INT32_MAX, SOL_SOCKET, SO_SNDTIMEO, NETIO__NO},
    {NETIO_OPT_RCVTIMEO, "RCVTIMEO", NETIO__KIND_TIME, 0,
     0, INT32_MAX, SOL_SOCKET, SO_RCVTIMEO, NETIO__NO},
    {NETIO_OPT_REUSEADDR, "REUSEADDR", NETIO__KIND_INT, NETIO__FOR_IP | NETIO__FOR_UNBOUND,
     0, 1, SOL_SOCKET, NETIO__OS_REUSEADDR, NETIO__NO},
    {NETIO_OPT_REUSEPORT, "REUSEPORT", NETIO__KIND_INT, NETIO__FOR_IP | NETIO__FOR_UNBOUND,
     0, 1, SOL_SOCKET, NETIO__OS_REUSEPORT, NETIO__NO},
    {NETIO_OPT_EXCLUSIVE, "EXCLUSIVE", NETIO__KIND_INT, NETIO__FOR_IP | NETIO__FOR_UNBOUND,
     0, 1, SOL_SOCKET, NETIO__OS_EXCLUSIVE, NETIO__NO},
    {NETIO_OPT_V6ONLY, "V6ONLY", NETIO__KIND_INT, NETIO__FOR_IPV6 | NETIO__FOR_UNBOUND,
     0, 1, IPPROTO_IPV6, IPV6_V6ONLY, NETIO__NO},
    {NETIO_OPT_FASTOPEN, "FASTOPEN", NETIO__KIND_FASTOPEN, NETIO__FOR_TCP,
     0, INT32_MAX, IPPROTO_TCP, NETIO__OS_FASTOPEN, NETIO__NO},
    {NETIO_OPT_FASTOPEN_CONNECT, "FASTOPEN_CONNECT", NETIO__KIND_INT, NETIO__FOR_TCP,
     0, 1, IPPROTO_TCP, NETIO__OS_FASTOPEN_CONNECT, NETIO__NO},
    {NETIO_OPT_CONGESTION, "CONGESTION", NETIO__KIND_TEXT, NETIO__FOR_TCP,
     0, 0, IPPROTO_TCP, NETIO__OS_CONGESTION, NETIO__NO},
    {NETIO_OPT_DEVICE, "DEVICE", NETIO__KIND_DEVICE, NETIO__FOR_IP,
     0, 0, SOL_SOCKET, NETIO__OS_DEVICE, NETIO__OS_DEVICE6},
    {NETIO_OPT_MARK, "MARK", NETIO__KIND_INT, 0,
     INT32_MIN, INT32_MAX, SOL_SOCKET, NETIO__OS_MARK, NETIO__NO},
    {NETIO_OPT_TTL, "TTL", NETIO__KIND_INT, NETIO__BY_FAMILY,
     1, 255, IPPROTO_IP, IP_TTL, IPV6_UNICAST_HOPS},
    {NETIO_OPT_TOS, "TOS", NETIO__KIND_INT, NETIO__BY_FAMILY,
     0, 255, IPPROTO_IP, NETIO__OS_TOS, NETIO__OS_TCLASS},
    {NETIO_OPT_BROADCAST, "BROADCAST", NETIO__KIND_INT, NETIO__FOR_UDP,
     0, 1, SOL_SOCKET, SO_BROADCAST, NETIO__NO},
    {NETIO_OPT_MULTICAST_TTL, "MULTICAST_TTL", NETIO__KIND_INT,
     NETIO__FOR_DGRAM | NETIO__BY_FAMILY, 0, 255, IPPROTO_IP, IP_MULTICAST_TTL,
     IPV6_MULTICAST_HOPS},
    {NETIO_OPT_MULTICAST_LOOP, "MULTICAST_LOOP", NETIO__KIND_INT,
     NETIO__FOR_DGRAM | NETIO__BY_FAMILY, 0, 1, IPPROTO_IP, IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP},
    {NETIO_OPT_DONTFRAG, "DONTFRAG", NETIO__KIND_DONTFRAG, NETIO__BY_FAMILY,
     0, 1, IPPROTO_IP, NETIO__OS_DONTFRAG, NETIO__OS_DONTFRAG6},
    {NETIO_OPT_HDRINCL, "HDRINCL", NETIO__KIND_INT, NETIO__FOR_RAW,
     0, 1, IPPROTO_IP, NETIO__OS_HDRINCL, NETIO__NO},
    {NETIO_OPT_BUSY_POLL, "BUSY_POLL", NETIO__KIND_INT, 0,
     0, INT32_MAX, SOL_SOCKET, NETIO__OS_BUSY_POLL, NETIO__NO},
    {NETIO_OPT_NOTSENT_LOWAT, "NOTSENT_LOWAT", NETIO__KIND_INT, NETIO__FOR_TCP,
     0, INT32_MAX, IPPROTO_TCP, NETIO__OS_NOTSENT_LOWAT, NETIO__NO},
    {NETIO_OPT_MULTICAST_IF, "MULTICAST_IF", NETIO__KIND_MULTICAST_IF,
     NETIO__FOR_DGRAM | NETIO__BY_FAMILY, 0, INT32_MAX, IPPROTO_IP, IP_MULTICAST_IF,
     IPV6_MULTICAST_IF},
    {NETIO_OPT_RECV_LOCAL, "RECV_LOCAL", NETIO__KIND_INT, NETIO__FOR_DGRAM | NETIO__BY_FAMILY, 0, 1,
     IPPROTO_IP, NETIO__OS_RECV_LOCAL, NETIO__OS_RECV_LOCAL6},
    {NETIO_OPT_RECV_TTL, "RECV_TTL", NETIO__KIND_INT, NETIO__FOR_DGRAM | NETIO__BY_FAMILY, 0, 1,
     IPPROTO_IP, NETIO__OS_RECV_TTL, NETIO__OS_RECV_TTL6},
    {NETIO_OPT_RECV_TOS, "RECV_TOS", NETIO__KIND_INT, NETIO__FOR_DGRAM | NETIO__BY_FAMILY, 0, 1,
     IPPROTO_IP, NETIO__OS_RECV_TOS, NETIO__OS_RECV_TOS6},
    {NETIO_OPT_RECV_TIME, "RECV_TIME", NETIO__KIND_INT, NETIO__FOR_UDP, 0, 1, SOL_SOCKET,
     NETIO__OS_RECV_TIME, NETIO__NO},
    {NETIO_OPT_RECV_SEGMENTS, "RECV_SEGMENTS", NETIO__KIND_SEGMENTS, NETIO__FOR_UDP, 0, 1,
     NETIO__OS_UDP_LEVEL, NETIO__OS_RECV_SEGMENTS, NETIO__NO},
    {NETIO_OPT_ERROR, "ERROR", NETIO__KIND_ERROR, NETIO__READ_ONLY,
     0, 0, SOL_SOCKET, SO_ERROR, NETIO__NO},
    {NETIO_OPT_TYPE, "TYPE", NETIO__KIND_TYPE, NETIO__READ_ONLY,
     0, 0, SOL_SOCKET, SO_TYPE, NETIO__NO},
    {NETIO_OPT_FAMILY, "FAMILY", NETIO__KIND_FAMILY, NETIO__READ_ONLY,
     0, 0, SOL_SOCKET, 0, NETIO__NO},
    {NETIO_OPT_LISTENING, "LISTENING", NETIO__KIND_INT, NETIO__READ_ONLY,
     0, 1, SOL_SOCKET, NETIO__OS_LISTENING, NETIO__NO},
    {NETIO_OPT_MTU, "MTU", NETIO__KIND_INT, NETIO__READ_ONLY | NETIO__BY_FAMILY,
     0, 0, IPPROTO_IP, NETIO__OS_MTU, NETIO__OS_MTU6},
    {NETIO_OPT_READABLE, "READABLE", NETIO__KIND_READABLE, NETIO__READ_ONLY,
     0, 0, SOL_SOCKET, 0, NETIO__NO},
    {NETIO_OPT_UNSENT, "UNSENT", NETIO__KIND_UNSENT, NETIO__READ_ONLY | NETIO__FOR_TCP,
     0, 0, SOL_SOCKET, 0, NETIO__NO},
    {NETIO_OPT_DROPS, "DROPS", NETIO__KIND_DROPS, NETIO__READ_ONLY | NETIO__FOR_DGRAM, 0, 0,
     SOL_SOCKET, NETIO__OS_DROPS, NETIO__NO},
};
#undef NETIO__NO
// clang-format on

static const netio__option_row *netio__option_find(int option)
{
    for (size_t i = 0; i < sizeof netio__options / sizeof netio__options[0]; i++)
        if (netio__options[i].option == option) return &netio__options[i];
    return NULL;
}

static bool netio__option_is_text(const netio__option_row *row)
{
    return row->kind == NETIO__KIND_TEXT || row->kind == NETIO__KIND_DEVICE;
}

// --- a row meets a socket ----------------------------------------------------------------------

typedef struct netio__option_place {
    int level, os;
    bool v6; // an IPv6 socket
} netio__option_place;

static bool netio__is_bound(netio_socket s)
{
    netio_addr a;
    return netio_local_addr(s, &a) == 0 && netio_addr_port(&a) != 0;
}

// Whether the option is for such a socket, and where the OS has it then.
static int netio__option_locate(netio__option_place *out, netio_socket s,
                                const netio__option_row *row, bool set)
{
    int family = 0, type = netio__socket_type(s);
    if (type < 0) return type;
    int err = netio__os_family(s, &family);
    if (err < 0) return err;
    bool v4 = family == AF_INET, v6 = family == AF_INET6;
    if ((row->flags & NETIO__FOR_IPV6) && !v6) return v4 ? (int)NETIO_EINVAL : (int)NETIO_ENOTSUP;
    if ((row->flags & (NETIO__FOR_IP | NETIO__BY_FAMILY)) && !v4 && !v6) return NETIO_ENOTSUP;
    if ((row->flags & NETIO__FOR_STREAM) && type == SOCK_DGRAM) return NETIO_ENOTSUP;
    if ((row->flags & NETIO__FOR_DGRAM) && type != SOCK_DGRAM && type != SOCK_RAW)
        return NETIO_ENOTSUP;
    if ((row->flags & NETIO__FOR_RAW) && type != SOCK_RAW) return NETIO_ENOTSUP;
    if (set && (row->flags & NETIO__FOR_UNBOUND) && netio__is_bound(s)) return NETIO_EINVAL;
    out->v6 = v6;
    out->level = v6 && (row->flags & NETIO__BY_FAMILY) ? (int)IPPROTO_IPV6 : row->level;
    out->os = v6 && (row->flags & NETIO__BY_FAMILY) ? row->os6 : row->os;
    return out->os == NETIO__NO_OPTION ? (int)NETIO_ENOTSUP : 0;
}

// OpenBSD takes one byte for the multicast options.
static int netio__option_set_int(netio_socket s, int level, int os, int value)
{
    int err = netio__set_int(s, level, os, value);
    if (err == NETIO_EINVAL && level == IPPROTO_IP && value >= 0 && value < 256) {
        unsigned char one = (unsigned char)value;
        err = netio__os_setopt(s, level, os, &one, 1);
    }
    return err;
}

static int netio__option_get_int(netio_socket s, int level, int os, int *value)
{
    unsigned char bytes[sizeof(int)] = {0};
    size_t len = sizeof bytes;
    int err = netio__os_getopt(s, level, os, bytes, &len);
    if (err < 0) return err;
    if (len == 1) *value = bytes[0]; // as Windows has its BOOLs
    else memcpy(value, bytes, sizeof bytes);
    return 0;
}

#if NETIO__WINDOWS
static int netio__option_set_time(netio_socket s, int level, int os, int ms)
{
    return netio__set_int(s, level, os, ms);
}

static int netio__option_get_time(netio_socket s, int level, int os, int *ms)
{
    return netio__option_get_int(s, level, os, ms);
}
#else
static int netio__option_set_time(netio_socket s, int level, int os, int ms)
{
    struct timeval tv;
    tv.tv_sec = ms / 1000;
    tv.tv_usec = ms % 1000 * 1000;
    return netio__os_setopt(s, level, os, &tv, sizeof tv);
}

static int netio__option_get_time(netio_socket s, int level, int os, int *ms)
{
    struct timeval tv;
    size_t len = sizeof tv;
    int err = netio__os_getopt(s, level, os, &tv, &len);
    if (err < 0) return err;
    int64_t v = (int64_t)tv.tv_sec * 1000 + ((int64_t)tv.tv_usec + 999) / 1000;
    *ms = v > INT32_MAX ? INT32_MAX : (int)v;
    return 0;
}
#endif

#if NETIO__WINDOWS
typedef u_short netio__linger_s;
#else
typedef int netio__linger_s;
#endif

static int netio__option_set_linger(netio_socket s, int seconds)
{
    struct linger l;
    memset(&l, 0, sizeof l);
    l.l_onoff = seconds >= 0;
    l.l_linger = (netio__linger_s)(seconds > 0 ? seconds : 0);
    return netio__os_setopt(s, SOL_SOCKET, NETIO__OS_LINGER, &l, sizeof l);
}

static int netio__option_get_linger(netio_socket s, int *seconds)
{
    struct linger l;
    size_t len = sizeof l;
    int err = netio__os_getopt(s, SOL_SOCKET, NETIO__OS_LINGER, &l, &len);
    if (err == 0) *seconds = l.l_onoff ? (int)l.l_linger : -1;
    return err;
}

// Linux takes the number whatever its switch says; bit 2 is for listeners.
#if NETIO__LINUX
static int netio__fastopen_allowed(void)
{
    char text[16];
    int code = errno, fd = open("/proc/sys/net/ipv4/tcp_fastopen", O_RDONLY | O_CLOEXEC);
    ptrdiff_t n = fd < 0 ? 0 : netio__os_read_pipe(fd, text, sizeof text);
    uint32_t value = 2; // cannot be read: let the kernel decide
    while (n > 0 && !netio__is_digit(text[n - 1])) n--;
    if (n > 0) netio__parse_number(&value, text, (size_t)n, UINT32_MAX);
    if (fd >= 0) netio__os_close(fd);
    errno = code;
    return value & 2 ? 0 : NETIO_ENOTSUP;
}
#else
static int netio__fastopen_allowed(void) { return 0; }
#endif

// The interface for groups. IPv4 has it by number in its own ways; what is read back is an address.
#if NETIO__WINDOWS
static int netio__multicast_if_set(netio_socket s, const netio__option_place *at, int index)
{
    // An address of 0.x.x.x is a number there.
    return netio__set_int(s, at->level, at->os, at->v6 ? index : (int)htonl((u_long)index));
}

static int netio__multicast_if_get(netio_socket s, const netio__option_place *at, int *index)
{
    int v = 0;
    int err = netio__option_get_int(s, at->level, at->os, &v);
    if (err == 0) *index = at->v6 ? v : (int)ntohl((u_long)v);
    return err;
}
#else
#if NETIO__NETBSD
static int netio__multicast_if_set4(netio_socket s, const netio__option_place *at, int index)
{
    struct in_addr a;
    int err = netio__interface_ipv4((uint32_t)index, &a);
    return err < 0 ? err : netio__os_setopt(s, at->level, at->os, &a, sizeof a);
}
#else
static int netio__multicast_if_set4(netio_socket s, const netio__option_place *at, int index)
{
    struct ip_mreqn m;
    memset(&m, 0, sizeof m);
    // With the address too, which is what can be read back.
    int err = netio__interface_ipv4((uint32_t)index, &m.imr_address);
    if (err < 0 && err != NETIO_ENODEV) return err;
    m.imr_ifindex = index;
    return netio__os_setopt(s, at->level, at->os, &m, sizeof m);
}
#endif

static int netio__multicast_if_set(netio_socket s, const netio__option_place *at, int index)
{
    int err = at->v6 ? netio__set_int(s, at->level, at->os, index)
                     : netio__multicast_if_set4(s, at, index);
    if (err == 0 && at->v6) { // an IPv6 socket may send IPv4 too
        netio__option_place at4 = {IPPROTO_IP, IP_MULTICAST_IF, false};
        int code = netio__os_error();
        netio__multicast_if_set4(s, &at4, index);
        netio__os_set_error(code);
    }
    return err == NETIO_EADDRNOTAVAIL ? (int)NETIO_ENODEV : err;
}

static int netio__multicast_if_get(netio_socket s, const netio__option_place *at, int *index)
{
    struct in_addr a;
    netio_addr text;
    char host[NETIO_ADDR_TEXT];
    size_t len = sizeof a;
    if (at->v6) return netio__option_get_int(s, at->level, at->os, index);
    int err = netio__os_getopt(s, at->level, at->os, &a, &len);
    if (err < 0) return err;
    netio_addr_from_ip(&text, &a, 4, 0);
    *index = 0;
    if (netio_addr_class(&text) & NETIO_ADDR_ANY) return 0;
    if (netio_addr_format_host(&text, host, sizeof host) < 0) return NETIO_EIO;
    *index = (int)netio_interface_index(host);
    return 0;
}
#endif

// SO_MEMINFO is an array of numbers; the ninth counts drops.
static int netio__drops_get(netio_socket s, const netio__option_place *at, int *out)
{
    uint32_t v[9] = {0};
    size_t len = sizeof v;
    int err = netio__os_getopt(s, at->level, at->os, v, &len);
    if (err < 0) return err;
    if (len < sizeof v) return NETIO_ENOTSUP;
    *out = v[8] > INT32_MAX ? INT32_MAX : (int)v[8];
    return 0;
}

// --- numbers -----------------------------------------------------------------------------------

NETIO_API int netio_set_option(netio_socket s, int option, int value)
{
    const netio__option_row *row = netio__option_find(option);
    netio__option_place at;
    if (!row || netio__option_is_text(row) || (row->flags & NETIO__READ_ONLY)) return NETIO_EINVAL;
    if (value < row->min || value > row->max) return NETIO_EINVAL;
    int err = netio__option_locate(&at, s, row, true);
    if (err < 0) return err;
    switch (row->kind) {
    case NETIO__KIND_TIME: return netio__option_set_time(s, at.level, at.os, value);
    case NETIO__KIND_LINGER: return netio__option_set_linger(s, value);
    case NETIO__KIND_MULTICAST_IF: return netio__multicast_if_set(s, &at, value);
    case NETIO__KIND_DONTFRAG: value = value ? NETIO__DONTFRAG_ON : NETIO__DONTFRAG_OFF; break;
    case NETIO__KIND_SEGMENTS: value = value && NETIO__WINDOWS ? 65535 : value; break;
    case NETIO__KIND_FASTOPEN:
        err = value ? netio__fastopen_allowed() : 0;
        if (err < 0) return err;
        if (NETIO__WINDOWS && value) value = 1;
        break;
    default: break;
    }
    err = netio__option_set_int(s, at.level, at.os, value);
    // An IPv6 socket may send IPv4 too, which has the option in its own place.
    if (err == 0 && at.v6 && (row->flags & NETIO__BY_FAMILY) && row->os != NETIO__NO_OPTION) {
        int code = netio__os_error();
        netio__option_set_int(s, row->level, row->os, value);
        netio__os_set_error(code);
    }
    return err;
}

static int netio__type_public(int os_type)
{
    return os_type == SOCK_STREAM      ? NETIO_STREAM
           : os_type == SOCK_DGRAM     ? NETIO_DGRAM
           : os_type == SOCK_SEQPACKET ? NETIO_SEQPACKET
                                       : -os_type;
}

static int netio__family_public(int os_family)
{
    return os_family == AF_INET    ? NETIO_IPV4
           : os_family == AF_INET6 ? NETIO_IPV6
           : os_family == AF_UNIX  ? NETIO_UNIX
                                   : -os_family;
}

static int netio__option_read(netio_socket s, const netio__option_row *row,
                              const netio__option_place *at, int *v)
{
    switch (row->kind) {
    case NETIO__KIND_TIME: return netio__option_get_time(s, at->level, at->os, v);
    case NETIO__KIND_LINGER: return netio__option_get_linger(s, v);
    case NETIO__KIND_FAMILY: return netio__os_family(s, v);
    case NETIO__KIND_READABLE: return netio__os_readable(s, v);
    case NETIO__KIND_UNSENT: return netio__os_unsent(s, v);
    case NETIO__KIND_DROPS: return netio__drops_get(s, at, v);
    case NETIO__KIND_MULTICAST_IF: return netio__multicast_if_get(s, at, v);
    default: return netio__option_get_int(s, at->level, at->os, v);
    }
}

NETIO_API int netio_get_option(netio_socket s, int option, int *value)
{
    const netio__option_row *row = netio__option_find(option);
    netio__option_place at;
    int v = 0;
    if (!row || !value || netio__option_is_text(row)) return NETIO_EINVAL;
    int err = netio__option_locate(&at, s, row, false);
    if (err == 0) err = netio__option_read(s, row, &at, &v);
    if (err < 0) return err;
    switch (row->kind) {
    case NETIO__KIND_DONTFRAG: v = v == NETIO__DONTFRAG_ON; break;
    case NETIO__KIND_ERROR: v = netio__os_map(v); break;
    case NETIO__KIND_TYPE: v = netio__type_public(v); break;
    case NETIO__KIND_FAMILY: v = netio__family_public(v); break;
    default: break;
    }
    // Some systems hand back the flag's own bit for "on".
    if (row->min == 0 && row->max == 1) v = v != 0;
    *value = v;
    return 0;
}

// --- text --------------------------------------------------------------------------------------

#if NETIO__APPLE
static int netio__device_set(netio_socket s, const netio__option_row *row, bool v6,
                             const char *name)
{
    int index = name[0] ? (int)netio__os_if_index(name) : 0;
    if (name[0] && index == 0) return NETIO_ENODEV;
    return v6 ? netio__set_int(s, IPPROTO_IPV6, row->os6, index)
              : netio__set_int(s, IPPROTO_IP, row->os, index);
}

static int netio__device_get(netio_socket s, const netio__option_row *row, bool v6, char name[64])
{
    int index = 0;
    int err = v6 ? netio__option_get_int(s, IPPROTO_IPV6, row->os6, &index)
                 : netio__option_get_int(s, IPPROTO_IP, row->os, &index);
    name[0] = 0;
    if (err == 0 && index) netio__os_if_name((uint32_t)index, name);
    return err;
}
#else
static int netio__device_set(netio_socket s, const netio__option_row *row, bool v6,
                             const char *name)
{
    (void)v6;
    return netio__os_setopt(s, row->level, row->os, name, strlen(name));
}

static int netio__device_get(netio_socket s, const netio__option_row *row, bool v6, char name[64])
{
    size_t len = 63;
    (void)v6;
    int err = netio__os_getopt(s, row->level, row->os, name, &len);
    if (err == 0) name[len] = 0;
    return err;
}
#endif

NETIO_API int netio_set_option_text(netio_socket s, int option, const char *text)
{
    const netio__option_row *row = netio__option_find(option);
    netio__option_place at;
    if (!row || !text || !netio__option_is_text(row) || strlen(text) > 63) return NETIO_EINVAL;
    int err = netio__option_locate(&at, s, row, true);
    if (err < 0) return err;
    if (row->kind == NETIO__KIND_DEVICE) return netio__device_set(s, row, at.v6, text);
    return netio__os_setopt(s, at.level, at.os, text, strlen(text));
}

NETIO_API int netio_get_option_text(netio_socket s, int option, char *buf, size_t cap)
{
    const netio__option_row *row = netio__option_find(option);
    netio__option_place at;
    char text[64] = {0};
    size_t len = sizeof text - 1;
    if (!row || (!buf && cap) || !netio__option_is_text(row)) return NETIO_EINVAL;
    int err = netio__option_locate(&at, s, row, false);
    if (err < 0) return err;
    err = row->kind == NETIO__KIND_DEVICE ? netio__device_get(s, row, at.v6, text)
                                          : netio__os_getopt(s, at.level, at.os, text, &len);
    if (err < 0) return err;
    len = netio__text_z(buf, cap, 0, text);
    return len < cap ? (int)len : (int)NETIO_ENOSPC;
}

// --- the rest ----------------------------------------------------------------------------------

NETIO_API int netio_set_option_raw(netio_socket s, int level, int name, const void *value,
                                   size_t len)
{
    if ((!value && len) || len > NETIO__IO_MAX) return NETIO_EINVAL;
    return netio__os_setopt(s, level, name, value, len);
}

NETIO_API int netio_get_option_raw(netio_socket s, int level, int name, void *value, size_t *len)
{
    if (!value || !len || *len > NETIO__IO_MAX) return NETIO_EINVAL;
    return netio__os_getopt(s, level, name, value, len);
}

// Asks the system itself, on a socket of the kind that the option is for.
static bool netio__option_probe(const netio__option_row *row)
{
    int family = row->flags & NETIO__FOR_IPV6 ? AF_INET6 : AF_INET, v = 0;
    int type = row->flags & NETIO__FOR_DGRAM ? SOCK_DGRAM : SOCK_STREAM;
    netio_socket s = NETIO_INVALID_SOCKET;
    netio__option_place at;
    char name[64];
    if (netio__os_socket(&s, family, type, 0, false) < 0) return false;
    int err = netio__option_locate(&at, s, row, false);
    if (err == 0)
        err = row->kind == NETIO__KIND_DEVICE ? netio__device_get(s, row, at.v6, name)
              : row->kind == NETIO__KIND_TEXT ? 0
                                              : netio__option_read(s, row, &at, &v);
    if (err == 0 && row->kind == NETIO__KIND_FASTOPEN) err = netio__fastopen_allowed();
    netio__os_close(s);
    // Unconnected, or without rights: known all the same. EINVAL is what Wine says.
    return err != NETIO_ENOTSUP && err != NETIO_EINVAL;
}

NETIO_API bool netio_option_supported(int option)
{
    const netio__option_row *row = netio__option_find(option);
    if (!row || row->os == NETIO__NO_OPTION) return false;
    return (row->flags & NETIO__FOR_RAW) || netio__option_probe(row);
}

NETIO_API const char *netio_option_name(int option)
{
    const netio__option_row *row = netio__option_find(option);
    return row ? row->name : "";
}

#if !NETIO__WINDOWS
static int netio__os_keepalive_pair(netio_socket s, int idle_s, int interval_s)
{
    (void)s, (void)idle_s, (void)interval_s;
    return NETIO_ENOTSUP;
}
#endif

NETIO_API int netio_set_keepalive(netio_socket s, int idle_s, int interval_s, int count)
{
    if (idle_s < 1 || idle_s > 32767 || interval_s < 1 || interval_s > 32767 || count < 1 ||
        count > 127)
        return NETIO_EINVAL;
    int err = netio_set_option(s, NETIO_OPT_KEEPALIVE, 1);
    if (err < 0) return err;
    err = netio_set_option(s, NETIO_OPT_KEEPIDLE, idle_s);
    if (err == NETIO_ENOTSUP) {
        err = netio__os_keepalive_pair(s, idle_s, interval_s);
        return err == 0 && count != 10 ? (int)NETIO_ENOTSUP : err;
    }
    if (err == 0) err = netio_set_option(s, NETIO_OPT_KEEPINTVL, interval_s);
    if (err == 0) err = netio_set_option(s, NETIO_OPT_KEEPCNT, count);
    return err;
}

// --- presets, TCP's own view -------------------------------------------------------------------

static const netio_setting netio__preset_latency[] = {
    {NETIO_OPT_NODELAY, 1, NULL}, {NETIO_OPT_QUICKACK, 1, NULL}, {NETIO_OPT_TOS, 0x10, NULL}};
static const netio_setting netio__preset_bulk[] = {{NETIO_OPT_SNDBUF, 1048576, NULL},
                                                   {NETIO_OPT_RCVBUF, 1048576, NULL}};
static const netio_setting netio__preset_server[] = {
    {NETIO_OPT_KEEPALIVE, 1, NULL},        {NETIO_OPT_KEEPIDLE, 60, NULL},
    {NETIO_OPT_KEEPINTVL, 10, NULL},       {NETIO_OPT_KEEPCNT, 5, NULL},
    {NETIO_OPT_USER_TIMEOUT, 30000, NULL}, {NETIO_OPT_NODELAY, 1, NULL}};
static const netio_setting netio__preset_battery[] = {{NETIO_OPT_KEEPALIVE, 1, NULL},
                                                      {NETIO_OPT_KEEPIDLE, 900, NULL},
                                                      {NETIO_OPT_KEEPINTVL, 60, NULL},
                                                      {NETIO_OPT_KEEPCNT, 3, NULL},
                                                      {NETIO_OPT_NODELAY, 0, NULL}};

static const struct {
    const netio_setting *settings;
    size_t count;
} netio__presets[] = {
    {NULL, 0},
    {netio__preset_latency, sizeof netio__preset_latency / sizeof(netio_setting)},
    {netio__preset_bulk, sizeof netio__preset_bulk / sizeof(netio_setting)},
    {netio__preset_server, sizeof netio__preset_server / sizeof(netio_setting)},
    {netio__preset_battery, sizeof netio__preset_battery / sizeof(netio_setting)},
};

NETIO_API size_t netio_preset(int preset, const netio_setting **settings)
{
    if (preset < NETIO_PRESET_LATENCY || preset > NETIO_PRESET_BATTERY) preset = 0;
    if (settings) *settings = netio__presets[preset].settings;
    return netio__presets[preset].count;
}

NETIO_API int netio_set_options(netio_socket s, const netio_setting *settings, size_t count,
                                uint32_t *skipped)
{
    if (!settings && count) return NETIO_EINVAL;
    if (skipped) *skipped = 0;
    for (size_t i = 0; i < count; i++) {
        const netio_setting *set = &settings[i];
        int err = set->text ? netio_set_option_text(s, set->option, set->text)
                            : netio_set_option(s, set->option, set->value);
        if (err == NETIO_ENOTSUP && skipped && i < 32) *skipped |= UINT32_C(1) << i;
        if (err < 0 && err != NETIO_ENOTSUP) return err;
    }
    return 0;
}

NETIO_API int netio_tcp_info_get(netio_socket s, netio_tcp_info *out)
{
    netio_tcp_info info;
    if (!out) return NETIO_EINVAL;
    if (s == NETIO_INVALID_SOCKET) return NETIO_EBADF; // Windows looks at other things first
    memset(&info, 0, sizeof info);
    int err = netio__os_tcp_info(s, &info);
    if (err == 0) *out = info;
    return err;
}

NETIO_API const char *netio_tcp_state_name(int state)
{
    static const char *const names[] = {"CLOSED",      "LISTEN",     "SYN_SENT",   "SYN_RECEIVED",
                                        "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT",
                                        "CLOSING",     "LAST_ACK",   "TIME_WAIT"};
    return state < 0 || state > NETIO_TCP_TIME_WAIT ? "" : names[state];
}

//================================================================================================
// >>poller.c
//
// What all backends share: the table of registrations, found by socket through a hash and by key
// (slot and generation) when the kernel reports; the rules; the wake. A backend is a section below
// with one table of functions, and is told of changes of interest only.
//================================================================================================

#if NETIO__HAS_POLLER

#define NETIO__NO_SLOT UINT32_MAX
#define NETIO__INTEREST (NETIO_EV_READ | NETIO_EV_WRITE)
#define NETIO__SETTLED 128 // in a slot's interest, Windows: past its connect

typedef struct netio__slot {
    void *user;
    netio_socket socket;
    uint32_t gen;      // part of the key; raised when the slot is freed
    uint32_t pos;      // the backend's own: place in its array
    uint16_t identity; // of the open description, where the backend asks for it
    uint8_t interest;  // NETIO_EV_* that are asked for, with flags
    uint8_t armed;     // NETIO_EV_READ, _WRITE in the backend's set; 0 after a one-shot report
} netio__slot;

typedef struct netio__poller_ops {
    int backend;
    bool edge, oneshot; // native ones
    int (*open)(netio_poller *p);
    void (*close)(netio_poller *p);
    // Interest of a slot goes from slot->armed (0: not in the set) to `events` (0: out of it), with
    // the flags of slot->interest. Does not touch the slot but for `pos` and `identity`.
    int (*change)(netio_poller *p, uint32_t slot, unsigned events);
    // Whether an armed slot's socket is still the one that was registered.
    bool (*alive)(netio_poller *p, uint32_t slot);
    // Once: fills events with netio__poller_report. NETIO_EAGAIN: a signal came.
    ptrdiff_t (*wait)(netio_poller *p, netio_event *out, size_t cap, int timeout_ms);
} netio__poller_ops;

struct netio_poller {
    const netio__poller_ops *ops;
    netio__slot *slots;
    uint32_t slot_cap, free_slot, count; // free slots are chained through `pos`
    uint32_t *hash;                      // slot numbers; NETIO__NO_SLOT: empty
    uint32_t hash_cap;
    uint64_t stale;
    netio_socket wake[2]; // to wait on, to write to; the same with eventfd
    bool woken, spent;    // found in this wait: a wake, a one-shot report
    bool stop;            // likewise: a wake that says stop, of a loop's
    int fd;               // epoll, kqueue
    uint32_t *watch; // select, poll, WSAPoll: the slots in the set, in any order. epoll: the slots
                     // that are always ready
    uint32_t watch_count, watch_cap, turn;
    void *set; // the backend's own array
    size_t set_cap;
    uint32_t leftovers; // epoll: reports for keys that are gone. WSAPoll: slots that wait to write
    uint32_t parked;    // WSAPoll: slots out of its set after a half-close
    uint64_t asked_ms;  // WSAPoll: when select was asked
};

// --- the table ---------------------------------------------------------------------------------

static uint32_t netio__hash_socket(netio_socket s)
{
    uint64_t x = (uint64_t)s * UINT64_C(0x9E3779B97F4A7C15);
    return (uint32_t)(x >> 32);
}

// Where a socket stands in the hash, or the empty place where it would.
static uint32_t netio__hash_place(const netio_poller *p, netio_socket s)
{
    uint32_t mask = p->hash_cap - 1, i = netio__hash_socket(s) & mask;
    while (p->hash[i] != NETIO__NO_SLOT && p->slots[p->hash[i]].socket != s) i = (i + 1) & mask;
    return i;
}

static uint32_t netio__slot_find(const netio_poller *p, netio_socket s)
{
    return p->hash_cap ? p->hash[netio__hash_place(p, s)] : NETIO__NO_SLOT;
}

// Removal closes the gap, so that no tombstones collect.
static void netio__hash_remove(netio_poller *p, netio_socket s)
{
    uint32_t mask = p->hash_cap - 1, gap = netio__hash_place(p, s), i = gap;
    for (;;) {
        i = (i + 1) & mask;
        if (p->hash[i] == NETIO__NO_SLOT) break;
        uint32_t home = netio__hash_socket(p->slots[p->hash[i]].socket) & mask;
        if (((i - home) & mask) >= ((i - gap) & mask)) {
            p->hash[gap] = p->hash[i];
            gap = i;
        }
    }
    p->hash[gap] = NETIO__NO_SLOT;
}

static int netio__hash_grow(netio_poller *p)
{
    uint32_t cap = p->hash_cap ? p->hash_cap * 2 : 16, *old = p->hash;
    if (p->count + 1 <= p->hash_cap / 4 * 3) return 0;
    if (cap > UINT32_MAX / 2) return NETIO_ENOMEM;
    p->hash = (uint32_t *)NETIO_MALLOC(cap * sizeof *p->hash);
    if (!p->hash) {
        p->hash = old;
        return NETIO_ENOMEM;
    }
    for (uint32_t i = 0; i < cap; i++) p->hash[i] = NETIO__NO_SLOT;
    uint32_t old_cap = p->hash_cap;
    p->hash_cap = cap;
    for (uint32_t i = 0; i < old_cap; i++)
        if (old[i] != NETIO__NO_SLOT)
            p->hash[netio__hash_place(p, p->slots[old[i]].socket)] = old[i];
    NETIO_FREE(old);
    return 0;
}

// A larger array; its old elements stay. A quarter more each time keeps the memory close to what is
// used and the number of moves small.
static int netio__array_grow(void **array, size_t *cap, size_t need, size_t size)
{
    size_t room = *cap + *cap / 4 + 16;
    if (need <= *cap) return 0;
    if (room < need) room = need;
    if (room > UINT32_MAX - 1 || room > SIZE_MAX / size) return NETIO_ENOMEM;
    void *bigger = NETIO_REALLOC(*array, room * size);
    if (!bigger) return NETIO_ENOMEM;
    *array = bigger;
    *cap = room;
    return 0;
}

static int netio__slots_grow(netio_poller *p)
{
    void *slots = p->slots;
    size_t cap = p->slot_cap;
    if (p->free_slot != NETIO__NO_SLOT) return 0;
    int err = netio__array_grow(&slots, &cap, cap + 1, sizeof *p->slots);
    if (err < 0) return err;
    p->slots = (netio__slot *)slots;
    for (uint32_t i = (uint32_t)cap; i-- > p->slot_cap;) {
        memset(&p->slots[i], 0, sizeof p->slots[i]);
        p->slots[i].socket = NETIO_INVALID_SOCKET;
        p->slots[i].gen = 1;
        p->slots[i].pos = p->free_slot;
        p->free_slot = i;
    }
    p->slot_cap = (uint32_t)cap;
    return 0;
}

static uint32_t netio__slot_take(netio_poller *p, netio_socket s)
{
    uint32_t slot = p->free_slot;
    p->free_slot = p->slots[slot].pos;
    p->slots[slot].socket = s;
    p->slots[slot].pos = NETIO__NO_SLOT;
    p->hash[netio__hash_place(p, s)] = slot;
    p->count++;
    return slot;
}

static void netio__slot_free(netio_poller *p, uint32_t slot)
{
    netio__slot *r = &p->slots[slot];
    netio__hash_remove(p, r->socket);
    r->socket = NETIO_INVALID_SOCKET;
    r->user = NULL;
    r->interest = r->armed = 0;
    r->gen++;
    r->pos = p->free_slot;
    p->free_slot = slot;
    p->count--;
}

// --- what the backends of the simple kind share: an array of the slots in the set ---------------

static int netio__watch_add(netio_poller *p, uint32_t slot)
{
    void *watch = p->watch;
    size_t cap = p->watch_cap;
    int err = netio__array_grow(&watch, &cap, (size_t)p->watch_count + 1, sizeof *p->watch);
    if (err < 0) return err;
    p->watch = (uint32_t *)watch;
    p->watch_cap = (uint32_t)cap;
    p->slots[slot].pos = p->watch_count;
    p->watch[p->watch_count++] = slot;
    return 0;
}

// The last takes the place that becomes free. Returns that place.
static uint32_t netio__watch_remove(netio_poller *p, uint32_t slot)
{
    uint32_t pos = p->slots[slot].pos, last = p->watch[--p->watch_count];
    NETIO_ASSERT(p->watch[pos] == slot || last == slot);
    p->watch[pos] = last;
    p->slots[last].pos = pos;
    p->slots[slot].pos = NETIO__NO_SLOT;
    return pos;
}

// --- reporting ---------------------------------------------------------------------------------

// Out of the backend's set. A one-shot that has spoken may still stand in the kernel's.
static void netio__disarm(netio_poller *p, uint32_t slot)
{
    netio__slot *r = &p->slots[slot];
    if (r->armed || (r->interest & NETIO_EV_ONESHOT)) p->ops->change(p, slot, 0);
    r->armed = 0;
}

// One event into `out`, if anything armed is among `got`. Returns how many were written.
static size_t netio__poller_report(netio_poller *p, uint32_t slot, unsigned got, netio_event *out)
{
    netio__slot *r = &p->slots[slot];
    unsigned events = got & r->armed;
    if (!events) return 0;
    out->user = r->user;
    out->socket = r->socket;
    out->events = events | (got & (NETIO_EV_HINT_EOF | NETIO_EV_HINT_ERROR));
    if (r->interest & NETIO_EV_ONESHOT) p->spent = true;
    return 1;
}

static void netio__drop_stale(netio_poller *p, uint32_t slot)
{
    netio__disarm(p, slot);
    netio__slot_free(p, slot);
    p->stale++;
}

#if (NETIO__HAS_SELECT && !NETIO__WINDOWS) || NETIO__HAS_POLL || NETIO__HAS_EPOLL ||               \
    (NETIO__WINDOWS && (NETIO__HAS_SELECT || NETIO__HAS_WSAPOLL))
// For what the kernel does not remember between two calls.
static bool netio__identity_alive(netio_poller *p, uint32_t slot)
{
    uint16_t now = 0, then = p->slots[slot].identity;
    int code = netio__os_error();
    bool open = netio__os_identity(p->slots[slot].socket, &now) == 0;
    netio__os_set_error(code);
    return open && (now == then || !now || !then); // 0: the system does not tell
}

#if NETIO__HAS_SELECT || NETIO__HAS_POLL || NETIO__HAS_WSAPOLL
static void netio__set_close(netio_poller *p) { NETIO_FREE(p->set); }
#endif
#endif

// --- waking ------------------------------------------------------------------------------------

#if !NETIO__WINDOWS
#if NETIO__HAS_EVENTFD
static int netio__wake_open(netio_socket wake[2])
{
    wake[0] = wake[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake[0] >= 0) return 0;
    return errno == ENOSYS ? netio__os_pipe(wake) : netio__os_fail(); // a sandbox may refuse it
}
#else
static int netio__wake_open(netio_socket wake[2]) { return netio__os_pipe(wake); }
#endif

// Eight bytes, as an eventfd wants, which adds them up; a pipe does not mind. "Stop" is the upper
// half. EAGAIN: it is awake enough.
static int netio__wake_write(netio_socket s, bool stop)
{
    uint64_t value = stop ? (uint64_t)1 << 32 : 1;
    int code = errno;
    while (write(s, &value, sizeof value) < 0 && errno == EINTR) {}
    errno = code;
    return 0;
}

// Returns whether one of them said stop.
static bool netio__wake_drain(netio_socket s)
{
    uint64_t got[8];
    ssize_t n;
    bool stop = false;
    int code = errno;
    do {
        n = read(s, got, sizeof got);
        for (size_t i = 0; n > 0 && i < (size_t)n / sizeof got[0]; i++) stop |= got[i] >> 32 != 0;
    } while (n == (ssize_t)sizeof got);
    errno = code;
    return stop;
}
#else
static int netio__wake_open(netio_socket wake[2]) { return netio__pair(wake, NETIO_DGRAM); }

static int netio__wake_write(netio_socket s, bool stop)
{
    int code = WSAGetLastError();
    send(s, stop ? "s" : "w", 1, 0);
    WSASetLastError(code);
    return 0;
}

static bool netio__wake_drain(netio_socket s)
{
    char got[64];
    bool stop = false;
    while (recv(s, got, (int)sizeof got, 0) > 0) stop |= got[0] == 's';
    return stop;
}
#endif

static void netio__poller_woken(netio_poller *p)
{
    if (netio__wake_drain(p->wake[0])) p->stop = true;
    p->woken = true;
}

#endif // NETIO__HAS_POLLER

#if NETIO__HAS_POLLER && NETIO__HAS_SELECT && !NETIO__WINDOWS
//================================================================================================
// >>select.c                                                             poller: POSIX select(2)
//
// Own bit sets, as long as the highest descriptor needs: FD_SET would write outside its 1,024 bits.
// The sets that are asked for stand first in one block, the copies for the call behind them. Each
// report costs an fstat, which tells a registered socket from one that took over its number.
//================================================================================================

#if NETIO__APPLE || NETIO__NETBSD
typedef uint32_t netio__fd_word;
#else
typedef unsigned long netio__fd_word;
#endif
#define NETIO__FD_BITS (sizeof(netio__fd_word) * 8)

enum { NETIO__SET_READ, NETIO__SET_WRITE, NETIO__SET_COUNT };

// Words of one set are p->set_cap; the block has NETIO__SET_COUNT sets, then as many copies.
static netio__fd_word *netio__select_set(netio_poller *p, int which)
{
    return (netio__fd_word *)p->set + (size_t)which * p->set_cap;
}

static void netio__select_bit(netio_poller *p, int which, netio_socket s, bool on)
{
    netio__fd_word *word = netio__select_set(p, which) + (size_t)s / NETIO__FD_BITS;
    netio__fd_word bit = (netio__fd_word)1 << ((size_t)s % NETIO__FD_BITS);
    *word = on ? *word | bit : *word & ~bit;
}

static bool netio__select_got(netio_poller *p, int which, netio_socket s)
{
    const netio__fd_word *copy = netio__select_set(p, NETIO__SET_COUNT + which);
    return copy[(size_t)s / NETIO__FD_BITS] >> ((size_t)s % NETIO__FD_BITS) & 1;
}

static int netio__select_grow(netio_poller *p, netio_socket s)
{
    size_t old = p->set_cap, need = (size_t)s / NETIO__FD_BITS + 1, cap = old;
    if (need <= old) return 0;
    while (cap < need) cap += cap / 2 + 16;
    netio__fd_word *sets =
        (netio__fd_word *)NETIO_MALLOC(cap * 2 * NETIO__SET_COUNT * sizeof *sets);
    if (!sets) return NETIO_ENOMEM;
    memset(sets, 0, cap * 2 * NETIO__SET_COUNT * sizeof *sets);
    for (size_t i = 0; i < NETIO__SET_COUNT && old; i++)
        memcpy(sets + i * cap, netio__select_set(p, (int)i), old * sizeof *sets);
    NETIO_FREE(p->set);
    p->set = sets;
    p->set_cap = cap;
    return 0;
}

static int netio__select_open(netio_poller *p)
{
    int err = netio__select_grow(p, p->wake[0]);
    if (err == 0) netio__select_bit(p, NETIO__SET_READ, p->wake[0], true);
    return err;
}

static int netio__select_change(netio_poller *p, uint32_t slot, unsigned events)
{
    netio__slot *r = &p->slots[slot];
    int err = 0;
    if (!events && !r->armed) return 0; // its bits may not even exist
    if (events && !r->armed) {
        err = netio__os_identity(r->socket, &r->identity);
        if (err == 0) err = netio__select_grow(p, r->socket);
        if (err == 0) err = netio__watch_add(p, slot);
    } else if (!events && r->armed) {
        netio__watch_remove(p, slot);
    }
    if (err < 0) return err;
    netio__select_bit(p, NETIO__SET_READ, r->socket, (events & NETIO_EV_READ) != 0);
    netio__select_bit(p, NETIO__SET_WRITE, r->socket, (events & NETIO_EV_WRITE) != 0);
    return 0;
}

// After EBADF: somebody closed a socket that is in the set.
static void netio__select_sweep(netio_poller *p)
{
    for (uint32_t i = p->watch_count; i-- > 0;)
        if (!netio__identity_alive(p, p->watch[i])) netio__drop_stale(p, p->watch[i]);
}

static ptrdiff_t netio__select_wait(netio_poller *p, netio_event *out, size_t cap, int timeout_ms)
{
    struct timeval tv;
    netio_socket high = p->wake[0];
    bool dead = false;
    size_t n = 0;
    for (uint32_t i = 0; i < p->watch_count; i++)
        if (p->slots[p->watch[i]].socket > high) high = p->slots[p->watch[i]].socket;
    size_t words = (size_t)high / NETIO__FD_BITS + 1;
    for (int i = 0; i < NETIO__SET_COUNT; i++)
        memcpy(netio__select_set(p, NETIO__SET_COUNT + i), netio__select_set(p, i),
               words * sizeof(netio__fd_word));
    tv.tv_sec = timeout_ms / 1000;
    tv.tv_usec = timeout_ms % 1000 * 1000;
    int ready = select(high + 1, (fd_set *)(void *)netio__select_set(p, NETIO__SET_COUNT),
                       (fd_set *)(void *)netio__select_set(p, NETIO__SET_COUNT + 1), NULL,
                       timeout_ms < 0 ? NULL : &tv);
    if (ready < 0 && errno == EBADF) {
        netio__select_sweep(p);
        return NETIO_EAGAIN;
    }
    if (ready < 0) return errno == EINTR ? (ptrdiff_t)NETIO_EAGAIN : netio__os_fail();
    if (ready && netio__select_got(p, NETIO__SET_READ, p->wake[0])) netio__poller_woken(p);
    // From another place each time, so that with a small `cap` all get their turn.
    for (uint32_t i = 0, count = p->watch_count; ready && i < count && n < cap; i++) {
        uint32_t slot = p->watch[(p->turn + i) % count];
        netio_socket s = p->slots[slot].socket;
        unsigned got = 0;
        if (netio__select_got(p, NETIO__SET_READ, s)) got |= NETIO_EV_READ;
        if (netio__select_got(p, NETIO__SET_WRITE, s)) got |= NETIO_EV_WRITE;
        // A stranger may have taken over the number of a socket that was closed without remove.
        if (got && !netio__identity_alive(p, slot)) dead = true;
        else n += netio__poller_report(p, slot, got, &out[n]);
        if (n == cap) p->turn = (p->turn + i + 1) % count;
    }
    if (dead) netio__select_sweep(p);
    return (ptrdiff_t)n;
}

static const netio__poller_ops netio__select_ops = {
    NETIO_BACKEND_SELECT,
    false,
    false,
    netio__select_open,
    netio__set_close,
    netio__select_change,
    netio__identity_alive,
    netio__select_wait,
};
#endif // select

#if NETIO__HAS_POLLER && NETIO__HAS_POLL
//================================================================================================
// >>poll.c                                                                 poller: POSIX poll(2)
//
// The array for the call has the wake at its beginning and then one entry for each slot in
// p->watch, in the same order. Each report costs an fstat, as with >>select.
//================================================================================================

static struct pollfd *netio__poll_fds(netio_poller *p) { return (struct pollfd *)p->set; }

static void netio__poll_set(netio_poller *p, size_t at, netio_socket s, unsigned events)
{
    struct pollfd *f = netio__poll_fds(p) + at;
    f->fd = s;
    f->events = (short)netio__os_poll_events(events);
    f->revents = 0;
}

static int netio__poll_open(netio_poller *p)
{
    int err = netio__array_grow(&p->set, &p->set_cap, 1, sizeof(struct pollfd));
    if (err == 0) netio__poll_set(p, 0, p->wake[0], NETIO_EV_READ);
    return err;
}

static int netio__poll_change(netio_poller *p, uint32_t slot, unsigned events)
{
    netio__slot *r = &p->slots[slot];
    int err = 0;
    if (!events && !r->armed) return 0;
    if (!events) {
        uint32_t gap = netio__watch_remove(p, slot);
        netio__poll_fds(p)[gap + 1] = netio__poll_fds(p)[p->watch_count + 1];
        return 0;
    }
    if (!r->armed) {
        err = netio__os_identity(r->socket, &r->identity);
        if (err == 0)
            err = netio__array_grow(&p->set, &p->set_cap, (size_t)p->watch_count + 2,
                                    sizeof(struct pollfd));
        if (err == 0) err = netio__watch_add(p, slot);
        if (err < 0) return err;
    }
    netio__poll_set(p, (size_t)r->pos + 1, r->socket, events);
    return 0;
}

static ptrdiff_t netio__poll_wait(netio_poller *p, netio_event *out, size_t cap, int timeout_ms)
{
    struct pollfd *fds = netio__poll_fds(p);
    uint32_t count = p->watch_count, dead = 0;
    size_t n = 0;
    int ready = poll(fds, (nfds_t)count + 1, timeout_ms);
    if (ready < 0) return errno == EINTR ? (ptrdiff_t)NETIO_EAGAIN : netio__os_fail();
    if (fds[0].revents) {
        netio__poller_woken(p);
        ready--;
    }
    // From another place each time, so that with a small `cap` all get their turn.
    uint32_t at = count ? p->turn % count : 0;
    for (uint32_t i = 0; ready > 0 && i < count && n < cap; i++) {
        uint32_t slot = p->watch[at];
        unsigned revents = (unsigned)(unsigned short)fds[at + 1].revents;
        at = at + 1 < count ? at + 1 : 0;
        if (!revents) continue;
        ready--;
        // A stranger may have taken over the number of a socket that was closed without remove.
        if ((revents & POLLNVAL) || !netio__identity_alive(p, slot)) dead++;
        else
            n += netio__poller_report(p, slot, netio__os_poll_got(revents, NETIO__INTEREST),
                                      &out[n]);
        if (n == cap) p->turn = at;
    }
    for (uint32_t i = p->watch_count; dead && i-- > 0;) {
        unsigned revents = (unsigned)(unsigned short)fds[i + 1].revents;
        if (!revents || (!(revents & POLLNVAL) && netio__identity_alive(p, p->watch[i]))) continue;
        netio__drop_stale(p, p->watch[i]);
        dead--;
    }
    return (ptrdiff_t)n;
}

static const netio__poller_ops netio__poll_ops = {
    NETIO_BACKEND_POLL,
    false,
    false,
    netio__poll_open,
    netio__set_close,
    netio__poll_change,
    netio__identity_alive,
    netio__poll_wait,
};
#endif // poll

#if NETIO__HAS_POLLER && NETIO__HAS_EPOLL
//================================================================================================
// >>epoll.c                                                                poller: Linux epoll(7)
//
// The key travels in epoll_data. Out of the set means EPOLL_CTL_DEL: the kernel reports errors and
// hang-ups even with no events asked for, and would spin. It forgets a descriptor when the last
// duplicate closes, so DEL treats EBADF and ENOENT as gone already. Where a duplicate lives on, the
// closed number cannot be taken out any more: its reports carry a dead key, and when such pile up
// the epoll object is made anew. Regular files are refused (EPERM); they are always ready.
//================================================================================================

#define NETIO__EPOLL_EVENTS 512
#define NETIO__EPOLL_LEFTOVERS 16 // dead reports before the object is made anew

// The layout of struct epoll_event is the kernel's. tcc ignores glibc's "packed" and gets it wrong.
static bool netio__epoll_layout(void)
{
    size_t data = offsetof(struct epoll_event, data);
    return sizeof(struct epoll_event) == data + 8 && data == (NETIO__X86 ? 4 : 8);
}

static uint64_t netio__epoll_key(const netio_poller *p, uint32_t slot)
{
    return (uint64_t)p->slots[slot].gen << 32 | slot;
}

static int netio__epoll_ctl(netio_poller *p, int op, uint32_t slot, unsigned events)
{
    struct epoll_event e;
    const netio__slot *r = &p->slots[slot];
    memset(&e, 0, sizeof e);
    if (events & NETIO_EV_READ) e.events |= (uint32_t)EPOLLIN | (uint32_t)EPOLLRDHUP;
    if (events & NETIO_EV_WRITE) e.events |= (uint32_t)EPOLLOUT;
    if (r->interest & NETIO_EV_EDGE) e.events |= (uint32_t)EPOLLET;
    if (r->interest & NETIO_EV_ONESHOT) e.events |= (uint32_t)EPOLLONESHOT;
    e.data.u64 = netio__epoll_key(p, slot);
    return epoll_ctl(p->fd, op, r->socket, &e) < 0 ? netio__os_fail() : 0;
}

static int netio__epoll_add_wake(netio_poller *p)
{
    struct epoll_event e;
    memset(&e, 0, sizeof e);
    e.events = (uint32_t)EPOLLIN;
    e.data.u64 = UINT64_MAX;
    return epoll_ctl(p->fd, EPOLL_CTL_ADD, p->wake[0], &e) < 0 ? netio__os_fail() : 0;
}

static void netio__epoll_close(netio_poller *p)
{
    if (p->fd >= 0) netio__os_close(p->fd);
}

static int netio__epoll_open(netio_poller *p)
{
    if (!netio__epoll_layout()) return NETIO_ENOTSUP;
    p->fd = epoll_create1(EPOLL_CLOEXEC);
    return p->fd < 0 ? netio__os_fail() : netio__epoll_add_wake(p);
}

static bool netio__epoll_in_kernel(const netio_poller *p, uint32_t slot)
{
    return p->slots[slot].pos == NETIO__NO_SLOT; // else it stands in p->watch: always ready
}

static int netio__epoll_change(netio_poller *p, uint32_t slot, unsigned events)
{
    netio__slot *r = &p->slots[slot];
    int err;
    if (!netio__epoll_in_kernel(p, slot)) {
        if (!events) netio__watch_remove(p, slot);
        return 0;
    }
    if (!events) {
        err = netio__epoll_ctl(p, EPOLL_CTL_DEL, slot, 0);
        return err == NETIO_EBADF || err == NETIO_ENOENT ? 0 : err;
    }
    // A one-shot that has spoken still stands in the kernel's set, mute.
    bool known = r->armed || (r->interest & NETIO_EV_ONESHOT);
    err = netio__epoll_ctl(p, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, slot, events);
    if (err == NETIO_EEXIST) err = netio__epoll_ctl(p, EPOLL_CTL_MOD, slot, events);
    // An armed one that the kernel does not know was closed; its number may be a stranger's now.
    if (err == NETIO_ENOENT && !r->armed) err = netio__epoll_ctl(p, EPOLL_CTL_ADD, slot, events);
    if (err == NETIO_EACCES && errno == EPERM) {
        err = netio__os_identity(r->socket, &r->identity);
        if (err == 0) err = netio__watch_add(p, slot);
    }
    return err;
}

// Asked by adding it once more, which changes nothing about one that is there.
static bool netio__epoll_alive(netio_poller *p, uint32_t slot)
{
    int code = errno;
    if (!netio__epoll_in_kernel(p, slot)) return netio__identity_alive(p, slot);
    int err = netio__epoll_ctl(p, EPOLL_CTL_ADD, slot, p->slots[slot].armed);
    if (err == 0) netio__epoll_ctl(p, EPOLL_CTL_DEL, slot, 0);
    errno = code;
    return err == NETIO_EEXIST;
}

// One registration into the new object. Gone if the old one does not know it any more.
static int netio__epoll_move(netio_poller *p, uint32_t slot, int fresh)
{
    int old = p->fd;
    if (!netio__epoll_alive(p, slot)) {
        p->slots[slot].armed = 0; // its number is no longer its own: nothing to take out
        netio__slot_free(p, slot);
        p->stale++;
        return 0;
    }
    p->fd = fresh;
    int err = netio__epoll_ctl(p, EPOLL_CTL_ADD, slot, p->slots[slot].armed);
    p->fd = old;
    return err;
}

// The old object keeps its number. (A poller that it is nested in must add it again.)
static void netio__epoll_rebuild(netio_poller *p)
{
    int code = errno, old = p->fd, fresh = epoll_create1(EPOLL_CLOEXEC);
    p->leftovers = 0;
    if (fresh < 0) return; // the next time, perhaps
    p->fd = fresh;
    int err = netio__epoll_add_wake(p);
    p->fd = old;
    for (uint32_t i = 0; i < p->slot_cap && err == 0; i++)
        if (p->slots[i].armed && netio__epoll_in_kernel(p, i)) err = netio__epoll_move(p, i, fresh);
    if (err == 0) dup3(fresh, old, O_CLOEXEC);
    netio__os_close(fresh);
    errno = code;
}

static unsigned netio__epoll_got(uint32_t e)
{
    unsigned got = 0;
    if (e & (uint32_t)(EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) got |= NETIO_EV_READ;
    if (e & (uint32_t)(EPOLLOUT | EPOLLHUP | EPOLLERR)) got |= NETIO_EV_WRITE;
    if (e & (uint32_t)(EPOLLRDHUP | EPOLLHUP)) got |= NETIO_EV_HINT_EOF;
    if (e & (uint32_t)EPOLLERR) got |= NETIO_EV_HINT_ERROR;
    return got;
}

// Regular files. They and the sockets go first in turns: with a small `cap` neither starves.
static size_t netio__epoll_files(netio_poller *p, netio_event *out, size_t cap)
{
    uint32_t count = p->watch_count, dead = NETIO__NO_SLOT;
    size_t n = 0;
    for (uint32_t i = 0; i < count && n < cap; i++) {
        uint32_t slot = p->watch[(p->turn / 2 + i) % count];
        if (!netio__identity_alive(p, slot)) dead = slot; // one at a time will do
        else n += netio__poller_report(p, slot, NETIO__INTEREST, &out[n]);
    }
    if (dead != NETIO__NO_SLOT) netio__drop_stale(p, dead);
    return n;
}

static ptrdiff_t netio__epoll_wait(netio_poller *p, netio_event *out, size_t cap, int timeout_ms)
{
    struct epoll_event list[NETIO__EPOLL_EVENTS];
    bool files_first = p->watch_count && (p->turn++ & 1);
    size_t n = files_first ? netio__epoll_files(p, out, cap) : 0;
    if (n == cap) return (ptrdiff_t)n;
    int ready = epoll_wait(p->fd, list, (int)(cap - n), p->watch_count ? 0 : timeout_ms);
    if (ready < 0 && n == 0) return errno == EINTR ? (ptrdiff_t)NETIO_EAGAIN : netio__os_fail();
    for (int i = 0; i < ready; i++) {
        uint64_t key = list[i].data.u64;
        uint32_t slot = (uint32_t)key;
        if (key == UINT64_MAX) {
            netio__poller_woken(p);
        } else if (slot >= p->slot_cap || p->slots[slot].gen != (uint32_t)(key >> 32)) {
            if (p->leftovers++ == 0) p->stale++;
        } else {
            n += netio__poller_report(p, slot, netio__epoll_got(list[i].events), &out[n]);
        }
    }
    if (p->leftovers >= NETIO__EPOLL_LEFTOVERS) netio__epoll_rebuild(p);
    if (p->watch_count && !files_first) n += netio__epoll_files(p, out + n, cap - n);
    return (ptrdiff_t)n;
}

static const netio__poller_ops netio__epoll_ops = {
    NETIO_BACKEND_EPOLL,
    true,
    true,
    netio__epoll_open,
    netio__epoll_close,
    netio__epoll_change,
    netio__epoll_alive,
    netio__epoll_wait,
};
#endif // epoll

#if NETIO__HAS_POLLER && NETIO__HAS_KQUEUE
//================================================================================================
// >>kqueue.c                                                     poller: kqueue(2), macOS and BSD
//
// READ and WRITE are knotes of their own, merged into one event. A knote goes when its number is
// closed. One-shot is done here: the kernel's would end one of the two knotes only. EV_EOF with an
// error is in fflags, and otherwise found by the call that follows.
//================================================================================================

#define NETIO__KQUEUE_EVENTS 256

// In NetBSD before 10 udata is an intptr_t.
static void netio__kqueue_set(struct kevent *k, netio_socket s, bool write, unsigned flags)
{
    memset(k, 0, sizeof *k);
    k->ident = (uintptr_t)s;
    k->filter = write ? EVFILT_WRITE : EVFILT_READ;
    k->flags = (unsigned short)flags;
}

// Counts of kevent(2).
#if NETIO__NETBSD && defined(__NetBSD__)
typedef size_t netio__kqueue_count;
#else
typedef int netio__kqueue_count;
#endif

static int netio__kqueue_changes(netio_poller *p, const struct kevent *k, int count)
{
    while (kevent(p->fd, k, (netio__kqueue_count)count, NULL, 0, NULL) < 0)
        if (errno != EINTR) return netio__os_fail();
    return 0;
}

static int netio__kqueue_one(netio_poller *p, netio_socket s, bool write, unsigned flags)
{
    struct kevent k;
    netio__kqueue_set(&k, s, write, flags);
    return netio__kqueue_changes(p, &k, 1);
}

static int netio__kqueue_open(netio_poller *p)
{
    p->fd = kqueue();
    if (p->fd < 0) return netio__os_fail();
    int err = netio__os_set_inheritable(p->fd, false);
    return err < 0 ? err : netio__kqueue_one(p, p->wake[0], false, EV_ADD);
}

static void netio__kqueue_close(netio_poller *p)
{
    if (p->fd >= 0) netio__os_close(p->fd);
}

// One of the two knotes. Where one should be, EV_ENABLE or EV_DELETE says NETIO_ENOENT if it went
// with its number: EV_ADD alone would take up whoever has that number now.
static int netio__kqueue_filter(netio_poller *p, const netio__slot *r, bool write, bool was,
                                bool wanted)
{
    struct kevent k[2];
    unsigned edge = r->interest & NETIO_EV_EDGE ? EV_CLEAR : 0;
    int n = 0;
    if (was) netio__kqueue_set(&k[n++], r->socket, write, wanted ? EV_ENABLE : EV_DELETE);
    if (wanted && (!was || edge)) netio__kqueue_set(&k[n++], r->socket, write, EV_ADD | edge);
    return n ? netio__kqueue_changes(p, k, n) : 0;
}

static int netio__kqueue_change(netio_poller *p, uint32_t slot, unsigned events)
{
    const netio__slot *r = &p->slots[slot];
    bool read = (r->armed & NETIO_EV_READ) != 0, write = (r->armed & NETIO_EV_WRITE) != 0;
    int err = netio__kqueue_filter(p, r, false, read, (events & NETIO_EV_READ) != 0);
    if (err < 0 && events) return err;
    err = netio__kqueue_filter(p, r, true, write, (events & NETIO_EV_WRITE) != 0);
    if (err < 0 && !read && (events & NETIO_EV_READ))
        netio__kqueue_one(p, r->socket, false, EV_DELETE);
    return err < 0 && events ? err : 0; // what is to go may be gone already
}

// EV_ENABLE fails if the kernel does not know the knote. (An edge it may report once more.)
static bool netio__kqueue_alive(netio_poller *p, uint32_t slot)
{
    const netio__slot *r = &p->slots[slot];
    int code = errno;
    bool alive = netio__kqueue_one(p, r->socket, !(r->armed & NETIO_EV_READ), EV_ENABLE) == 0;
    errno = code;
    return alive;
}

static ptrdiff_t netio__kqueue_wait(netio_poller *p, netio_event *out, size_t cap, int timeout_ms)
{
    struct kevent list[NETIO__KQUEUE_EVENTS];
    struct timespec ts;
    size_t n = 0;
    if (cap > NETIO__KQUEUE_EVENTS) cap = NETIO__KQUEUE_EVENTS;
    ts.tv_sec = timeout_ms / 1000;
    ts.tv_nsec = (long)(timeout_ms % 1000) * 1000000;
    int ready = kevent(p->fd, NULL, 0, list, (netio__kqueue_count)cap, timeout_ms < 0 ? NULL : &ts);
    if (ready < 0) return errno == EINTR ? (ptrdiff_t)NETIO_EAGAIN : netio__os_fail();
    for (int i = 0; i < ready; i++) {
        netio_socket s = (netio_socket)list[i].ident;
        unsigned got = list[i].filter == EVFILT_WRITE ? NETIO_EV_WRITE : NETIO_EV_READ;
        if (s == p->wake[0]) {
            netio__poller_woken(p);
            continue;
        }
        uint32_t slot = netio__slot_find(p, s);
        if (slot == NETIO__NO_SLOT || (list[i].flags & EV_ERROR)) continue;
        if (list[i].flags & EV_EOF) got |= NETIO_EV_HINT_EOF;
        if ((list[i].flags & EV_EOF) && list[i].fflags) got |= NETIO_EV_HINT_ERROR;
        uint32_t at = p->slots[slot].pos; // where this batch has it already
        if (at < n && out[at].socket == s) {
            out[at].events |= got & (p->slots[slot].armed | ~(unsigned)NETIO__INTEREST);
        } else if (netio__poller_report(p, slot, got, &out[n])) {
            p->slots[slot].pos = (uint32_t)n++;
        }
    }
    return (ptrdiff_t)n;
}

static const netio__poller_ops netio__kqueue_ops = {
    NETIO_BACKEND_KQUEUE,
    true,
    false,
    netio__kqueue_open,
    netio__kqueue_close,
    netio__kqueue_change,
    netio__kqueue_alive,
    netio__kqueue_wait,
};
#endif // kqueue

#if NETIO__HAS_POLLER && NETIO__WINDOWS && (NETIO__HAS_SELECT || NETIO__HAS_WSAPOLL)
// After WSAENOTSOCK: somebody closed a socket that is in the set. Only what is no socket any more
// goes: the addresses, which are its identity here, change when a live one is bound or connected.
static void netio__winsock_sweep(netio_poller *p)
{
    uint16_t unused;
    for (uint32_t i = p->watch_count; i-- > 0;)
        if (netio__os_identity(p->slots[p->watch[i]].socket, &unused) < 0)
            netio__drop_stale(p, p->watch[i]);
}

#endif

#if NETIO__HAS_POLLER && NETIO__HAS_SELECT && NETIO__WINDOWS
//================================================================================================
// >>winselect.c                                                        poller: Winsock's select
//
// An fd_set is a counted array there, of any length: three of them in one block, filled before each
// call. Writers stand in the third set too, where a failed connect shows.
//================================================================================================

typedef struct netio__winset {
    u_int count;
    SOCKET sockets[1]; // more, in fact
} netio__winset;

enum { NETIO__WIN_READ, NETIO__WIN_WRITE, NETIO__WIN_EXCEPT, NETIO__WIN_SETS };

// Bytes of a set of `cap` sockets.
static size_t netio__winset_size(size_t cap)
{
    return offsetof(netio__winset, sockets) + cap * sizeof(SOCKET);
}

static netio__winset *netio__winset_at(netio_poller *p, int which)
{
    return (netio__winset *)(void *)((char *)p->set +
                                     (size_t)which * netio__winset_size(p->set_cap));
}

static void netio__winset_add(netio_poller *p, int which, SOCKET s)
{
    netio__winset *set = netio__winset_at(p, which);
    set->sockets[set->count++] = s;
}

// Behind the sets: for each slot in p->watch what a wait has found.
static uint32_t *netio__winset_batch(netio_poller *p)
{
    return (uint32_t *)(void *)netio__winset_at(p, NETIO__WIN_SETS);
}

static int netio__winselect_grow(netio_poller *p, size_t need)
{
    size_t cap = p->set_cap + p->set_cap / 4 + 16;
    if (need <= p->set_cap) return 0;
    if (cap < need) cap = need;
    void *bigger =
        NETIO_REALLOC(p->set, NETIO__WIN_SETS * netio__winset_size(cap) + cap * sizeof(uint32_t));
    if (!bigger) return NETIO_ENOMEM;
    p->set = bigger;
    p->set_cap = cap;
    return 0;
}

static int netio__winselect_open(netio_poller *p) { return netio__winselect_grow(p, 1); }

static int netio__winselect_change(netio_poller *p, uint32_t slot, unsigned events)
{
    netio__slot *r = &p->slots[slot];
    if (!events && r->armed) netio__watch_remove(p, slot);
    if (!events || r->armed) return 0;
    int err = netio__os_identity(r->socket, &r->identity);
    if (err == 0) err = netio__winselect_grow(p, (size_t)p->watch_count + 2);
    return err < 0 ? err : netio__watch_add(p, slot);
}

static void netio__winselect_fill(netio_poller *p)
{
    for (int i = 0; i < NETIO__WIN_SETS; i++) netio__winset_at(p, i)->count = 0;
    netio__winset_add(p, NETIO__WIN_READ, p->wake[0]);
    memset(netio__winset_batch(p), 0, p->watch_count * sizeof(uint32_t));
    for (uint32_t i = 0; i < p->watch_count; i++) {
        const netio__slot *r = &p->slots[p->watch[i]];
        if (r->armed & NETIO_EV_READ) netio__winset_add(p, NETIO__WIN_READ, r->socket);
        if (r->armed & NETIO_EV_WRITE) netio__winset_add(p, NETIO__WIN_WRITE, r->socket);
        if (!(r->interest & NETIO__SETTLED)) netio__winset_add(p, NETIO__WIN_EXCEPT, r->socket);
    }
}

// What came back in one set. Urgent data takes a socket out of the third: its connect is over.
static void netio__winselect_mark(netio_poller *p, int which, unsigned got)
{
    const netio__winset *set = netio__winset_at(p, which);
    for (u_int i = 0; i < set->count; i++) {
        if (set->sockets[i] == p->wake[0]) {
            netio__poller_woken(p);
            continue;
        }
        uint32_t slot = netio__slot_find(p, set->sockets[i]);
        if (slot == NETIO__NO_SLOT) continue;
        netio__slot *r = &p->slots[slot];
        if (which == NETIO__WIN_EXCEPT && !netio__os_failed(r->socket))
            r->interest |= NETIO__SETTLED;
        else netio__winset_batch(p)[r->pos] |= got;
    }
}

// From another place each time, so that with a small `cap` all get their turn.
static size_t netio__winselect_collect(netio_poller *p, netio_event *out, size_t cap)
{
    size_t n = 0;
    for (uint32_t i = 0, count = p->watch_count; i < count && n < cap; i++) {
        uint32_t at = (p->turn + i) % count;
        n += netio__poller_report(p, p->watch[at], netio__winset_batch(p)[at], &out[n]);
        if (n == cap) p->turn = (at + 1) % count;
    }
    return n;
}

static ptrdiff_t netio__winselect_wait(netio_poller *p, netio_event *out, size_t cap,
                                       int timeout_ms)
{
    struct timeval tv;
    netio__winselect_fill(p);
    netio__os_timeval(&tv, timeout_ms);
    int ready = select(0, (fd_set *)(void *)netio__winset_at(p, NETIO__WIN_READ),
                       (fd_set *)(void *)netio__winset_at(p, NETIO__WIN_WRITE),
                       (fd_set *)(void *)netio__winset_at(p, NETIO__WIN_EXCEPT),
                       timeout_ms < 0 ? NULL : &tv);
    if (ready < 0 && WSAGetLastError() == WSAENOTSOCK) {
        netio__winsock_sweep(p);
        return NETIO_EAGAIN;
    }
    if (ready < 0)
        return WSAGetLastError() == WSAEINTR ? (ptrdiff_t)NETIO_EAGAIN : netio__os_fail();
    if (ready == 0) return 0;
    netio__winselect_mark(p, NETIO__WIN_READ, NETIO_EV_READ);
    netio__winselect_mark(p, NETIO__WIN_WRITE, NETIO_EV_WRITE);
    netio__winselect_mark(p, NETIO__WIN_EXCEPT, NETIO__INTEREST | NETIO_EV_HINT_ERROR);
    return (ptrdiff_t)netio__winselect_collect(p, out, cap);
}

static const netio__poller_ops netio__select_ops = {
    NETIO_BACKEND_SELECT,
    false,
    false,
    netio__winselect_open,
    netio__set_close,
    netio__winselect_change,
    netio__identity_alive,
    netio__winselect_wait,
};
#endif // select on Windows

#if NETIO__HAS_POLLER && NETIO__HAS_WSAPOLL
//================================================================================================
// >>wsapoll.c                                                           poller: Winsock's WSAPoll
//
// Like >>poll, with three differences. Before Windows 10 version 2004 a failed connect is not
// reported, so while somebody waits to write the call is cut into slices, between which select is
// asked. A half-close makes the hang-up bit stand for ever, also for a writer: such a slot is
// parked, a harmless socket taking its place, and select is asked about it in short slices. And
// a closed socket fails the whole call.
//================================================================================================

#define NETIO__WSAPOLL_SLICE_MS 250
#define NETIO__WSAPOLL_PARKED_MS 10

static WSAPOLLFD *netio__wsapoll_fds(netio_poller *p) { return (WSAPOLLFD *)p->set; }

static void netio__wsapoll_set(netio_poller *p, size_t at, netio_socket s, unsigned events)
{
    WSAPOLLFD *f = netio__wsapoll_fds(p) + at;
    f->fd = s;
    f->events = 0;
    if (events & NETIO_EV_READ) f->events |= POLLRDNORM;
    if (events & NETIO_EV_WRITE) f->events |= POLLWRNORM;
    f->revents = 0;
}

static int netio__wsapoll_open(netio_poller *p)
{
    int err = netio__array_grow(&p->set, &p->set_cap, 1, sizeof(WSAPOLLFD));
    if (err == 0) netio__wsapoll_set(p, 0, p->wake[0], NETIO_EV_READ);
    return err;
}

static void netio__wsapoll_park(netio_poller *p, uint32_t at)
{
    netio__wsapoll_set(p, (size_t)at + 1, p->wake[0], 0);
    p->parked++;
}

static int netio__wsapoll_change(netio_poller *p, uint32_t slot, unsigned events)
{
    netio__slot *r = &p->slots[slot];
    int err = 0;
    if (events && !r->armed) {
        err = netio__os_identity(r->socket, &r->identity);
        if (err == 0)
            err = netio__array_grow(&p->set, &p->set_cap, (size_t)p->watch_count + 2,
                                    sizeof(WSAPOLLFD));
        if (err == 0) err = netio__watch_add(p, slot);
        if (err < 0) return err;
    }
    if (r->armed && netio__wsapoll_fds(p)[r->pos + 1].fd != r->socket) p->parked--;
    if (r->armed & NETIO_EV_WRITE) p->leftovers--;
    if (events & NETIO_EV_WRITE) p->leftovers++;
    if (events) {
        netio__wsapoll_set(p, (size_t)r->pos + 1, r->socket, events);
    } else if (r->armed) {
        uint32_t gap = netio__watch_remove(p, slot);
        netio__wsapoll_fds(p)[gap + 1] = netio__wsapoll_fds(p)[p->watch_count + 1];
    }
    return 0;
}

static unsigned netio__wsapoll_got(unsigned revents)
{
    unsigned got = 0;
    if (revents & (POLLRDNORM | POLLHUP | POLLERR)) got |= NETIO_EV_READ;
    if (revents & (POLLWRNORM | POLLERR)) got |= NETIO_EV_WRITE; // POLLHUP alone: a half-close
    if (revents & POLLHUP) got |= NETIO_EV_HINT_EOF;
    if (revents & POLLERR) got |= NETIO_EV_HINT_ERROR;
    return got;
}

// What select says of every socket in the set, into the array. Returns how many are ready.
static int netio__wsapoll_ask_select(netio_poller *p)
{
    WSAPOLLFD *fds = netio__wsapoll_fds(p) + 1;
    int found = 0;
    for (uint32_t first = 0; first < p->watch_count; first += NETIO__WAITERS) {
        netio__os_waiter w[NETIO__WAITERS];
        uint32_t n = p->watch_count - first;
        if (n > NETIO__WAITERS) n = NETIO__WAITERS;
        for (uint32_t i = 0; i < n; i++) {
            w[i].socket = p->slots[p->watch[first + i]].socket;
            w[i].events = p->slots[p->watch[first + i]].armed;
        }
        if (netio__os_wait(w, n, 0) <= 0) continue;
        for (uint32_t i = 0; i < n; i++) {
            if (!w[i].got) continue;
            if (w[i].got & NETIO_EV_READ) fds[first + i].revents |= POLLRDNORM;
            if (w[i].got & NETIO_EV_WRITE) fds[first + i].revents |= POLLWRNORM;
            if (w[i].got & NETIO_EV_HINT_ERROR) fds[first + i].revents |= POLLERR;
            found++;
        }
    }
    return found;
}

static int netio__wsapoll_call(netio_poller *p, int timeout_ms)
{
    for (;;) {
        int slice = timeout_ms,
            most = p->parked ? NETIO__WSAPOLL_PARKED_MS : NETIO__WSAPOLL_SLICE_MS;
        if (p->leftovers && (slice < 0 || slice > most)) slice = most;
        int ready = WSAPoll(netio__wsapoll_fds(p), p->watch_count + 1, slice);
        // Others that are ready all the time must not keep select from being asked.
        if (ready >= 0 && p->leftovers &&
            (ready == 0 || netio_now_ms() - p->asked_ms >= (uint64_t)most)) {
            ready += netio__wsapoll_ask_select(p);
            p->asked_ms = netio_now_ms();
        }
        if (ready != 0 || slice == timeout_ms) return ready;
        if (timeout_ms > 0) timeout_ms -= slice;
    }
}

static size_t netio__wsapoll_collect(netio_poller *p, netio_event *out, size_t cap, bool *dead)
{
    const WSAPOLLFD *fds = netio__wsapoll_fds(p) + 1;
    uint32_t count = p->watch_count;
    size_t n = 0;
    for (uint32_t i = 0; i < count && n < cap; i++) {
        uint32_t at = (p->turn + i) % count;
        unsigned revents = (unsigned)(unsigned short)fds[at].revents;
        bool muted = (revents & (POLLHUP | POLLERR | POLLRDNORM | POLLWRNORM)) == POLLHUP &&
                     !(p->slots[p->watch[at]].armed & NETIO_EV_READ);
        if (revents & POLLNVAL) *dead = true;
        else if (muted) netio__wsapoll_park(p, at);
        else n += netio__poller_report(p, p->watch[at], netio__wsapoll_got(revents), &out[n]);
        if (n == cap) p->turn = (at + 1) % count;
    }
    return n;
}

static ptrdiff_t netio__wsapoll_wait(netio_poller *p, netio_event *out, size_t cap, int timeout_ms)
{
    bool dead = false;
    int ready = netio__wsapoll_call(p, timeout_ms);
    if (ready < 0 && WSAGetLastError() == WSAENOTSOCK) {
        netio__winsock_sweep(p);
        return NETIO_EAGAIN;
    }
    if (ready < 0) return netio__os_fail();
    if (ready == 0) return 0;
    if (netio__wsapoll_fds(p)[0].revents) netio__poller_woken(p);
    size_t n = netio__wsapoll_collect(p, out, cap, &dead);
    // Wine counts a reset socket as ready without saying how.
    if (n == 0 && !dead && !p->woken && netio__wsapoll_ask_select(p) > 0)
        n = netio__wsapoll_collect(p, out, cap, &dead);
    if (dead) netio__winsock_sweep(p);
    return (ptrdiff_t)n;
}

static const netio__poller_ops netio__wsapoll_ops = {
    NETIO_BACKEND_WSAPOLL,
    false,
    false,
    netio__wsapoll_open,
    netio__set_close,
    netio__wsapoll_change,
    netio__identity_alive,
    netio__wsapoll_wait,
};
#endif // WSAPoll

#if NETIO__HAS_POLLER && NETIO__HAS_AFD
//================================================================================================
// >>afd.c                                             poller: the Windows socket driver's own poll
//
// \Device\Afd is asked by a request for each socket and answers once, through a completion port: so
// a wait costs what happens, not what is watched. A request that was answered is made again at the
// beginning of the next wait, which makes it level-triggered. The driver wants the base provider's
// handle. A request's memory is the driver's until its completion has come back, also after cancel
// and after the socket was closed (which it tells: LOCAL_CLOSE). None of this is documented;
// wepoll, libuv and others have relied on it since Windows XP.
//================================================================================================

#define NETIO__AFD_RECEIVE 0x001u
#define NETIO__AFD_SEND 0x004u
#define NETIO__AFD_DISCONNECT 0x008u // the peer's FIN
#define NETIO__AFD_ABORT 0x010u
#define NETIO__AFD_LOCAL_CLOSE 0x020u
#define NETIO__AFD_ACCEPT 0x080u
#define NETIO__AFD_CONNECT_FAIL 0x100u
#define NETIO__AFD_EITHER (NETIO__AFD_ABORT | NETIO__AFD_CONNECT_FAIL)
#define NETIO__AFD_IN                                                                              \
    (NETIO__AFD_RECEIVE | NETIO__AFD_ACCEPT | NETIO__AFD_DISCONNECT | NETIO__AFD_EITHER)
#define NETIO__AFD_OUT (NETIO__AFD_SEND | NETIO__AFD_EITHER)
#define NETIO__AFD_POLL 0x00012024u
#define NETIO__AFD_BATCH 256
#define NETIO__NT_CANCELLED 0xC0000120u

typedef struct netio__nt_status_block {
    void *status; // a union with LONG in the original
    ULONG_PTR information;
} netio__nt_status_block;

typedef struct netio__nt_string {
    USHORT len, cap;
    WCHAR *text;
} netio__nt_string;

typedef struct netio__nt_object {
    ULONG len;
    HANDLE root;
    netio__nt_string *name;
    ULONG attributes;
    void *security, *quality;
} netio__nt_object;

typedef LONG(WINAPI *netio__nt_create)(HANDLE *, ACCESS_MASK, netio__nt_object *,
                                       netio__nt_status_block *, void *, ULONG, ULONG, ULONG, ULONG,
                                       void *, ULONG);
typedef LONG(WINAPI *netio__nt_control)(HANDLE, HANDLE, void *, void *, netio__nt_status_block *,
                                        ULONG, void *, ULONG, void *, ULONG);
typedef LONG(WINAPI *netio__nt_cancel)(HANDLE, netio__nt_status_block *, netio__nt_status_block *);

typedef struct netio__afd_info {
    LARGE_INTEGER timeout;
    ULONG count, exclusive;
    SOCKET socket; // of one handle
    ULONG events;
    LONG status;
} netio__afd_info;

enum { NETIO__AFD_IDLE, NETIO__AFD_PENDING, NETIO__AFD_CANCELLED };

// One request. Made when its slot is armed, freed when neither the driver nor a list has it.
typedef struct netio__afd_op {
    netio__nt_status_block block;
    netio__afd_info info;
    struct netio__afd_op *next; // in the list to submit, or the list of answers
    SOCKET base;
    uint32_t slot;
    ULONG want, asked, got;
    uint8_t state;
    bool listed, dead;
} netio__afd_op;

typedef struct netio__afd_list {
    netio__afd_op *head, *tail;
} netio__afd_list;

typedef struct netio__afd {
    HANDLE port, device;
    netio__nt_control control;
    netio__nt_cancel cancel;
    netio__afd_op **ops; // by slot
    size_t ops_cap, in_flight, cancelled;
    netio__afd_op *wake, *spare; // spare: free ones, kept for the next
    netio__afd_list submit, answers;
} netio__afd;

static netio__afd *netio__afd_state(netio_poller *p) { return (netio__afd *)p->set; }

static void netio__afd_push(netio__afd_list *list, netio__afd_op *op)
{
    NETIO_ASSERT(!op->listed);
    op->next = NULL;
    op->listed = true;
    if (list->tail) list->tail->next = op;
    else list->head = op;
    list->tail = op;
}

static netio__afd_op *netio__afd_pop(netio__afd_list *list)
{
    netio__afd_op *op = list->head;
    if (!op) return NULL;
    list->head = op->next;
    if (!list->head) list->tail = NULL;
    op->listed = false;
    return op;
}

// The socket under what layered providers put on top of it.
static SOCKET netio__afd_base(netio_socket s)
{
    static const DWORD asks[] = {0x48000022u /* SIO_BASE_HANDLE */,
                                 0x4800001Du /* SIO_BSP_HANDLE_POLL */};
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        SOCKET base = INVALID_SOCKET;
        DWORD n;
        if (WSAIoctl(s, asks[i], NULL, 0, &base, sizeof base, &n, NULL, NULL) == 0) return base;
        if (WSAGetLastError() == WSAENOTSOCK) break;
    }
    return INVALID_SOCKET;
}

static netio__afd_op *netio__afd_make(netio__afd *a, netio_socket s, uint32_t slot)
{
    SOCKET base = netio__afd_base(s);
    netio__afd_op *op = a->spare;
    if (base == INVALID_SOCKET) return NULL;
    if (op) a->spare = op->next;
    else op = (netio__afd_op *)NETIO_MALLOC(sizeof *op);
    if (!op) {
        WSASetLastError(WSA_NOT_ENOUGH_MEMORY);
        return NULL;
    }
    memset(op, 0, sizeof *op);
    op->base = base;
    op->slot = slot;
    return op;
}

static void netio__afd_free(netio__afd *a, netio__afd_op *op)
{
    op->next = a->spare;
    a->spare = op;
}

// Asks the driver. A socket that is closed already answers itself, with LOCAL_CLOSE.
static void netio__afd_submit(netio__afd *a, netio__afd_op *op)
{
    op->info.timeout.QuadPart = INT64_MAX;
    op->info.count = 1;
    op->info.exclusive = 0;
    op->info.socket = op->base;
    op->info.events = op->want | NETIO__AFD_LOCAL_CLOSE;
    op->info.status = 0;
    op->asked = op->want;
    op->block.status = NULL;
    LONG status = a->control(a->device, NULL, NULL, op, &op->block, NETIO__AFD_POLL, &op->info,
                             sizeof op->info, &op->info, sizeof op->info);
    if (status >= 0) { // also STATUS_PENDING
        op->state = NETIO__AFD_PENDING;
        a->in_flight++;
        return;
    }
    op->got = NETIO__AFD_LOCAL_CLOSE;
    netio__afd_push(&a->answers, op);
}

static void netio__afd_withdraw(netio__afd *a, netio__afd_op *op)
{
    netio__nt_status_block unused;
    if (op->state != NETIO__AFD_PENDING) return;
    a->cancel(a->device, &op->block, &unused);
    op->state = NETIO__AFD_CANCELLED; // its completion comes in any case
    a->cancelled++;
}

static void netio__afd_release(netio__afd *a, netio__afd_op *op)
{
    op->dead = true;
    netio__afd_withdraw(a, op);
    if (op->state == NETIO__AFD_IDLE && !op->listed) netio__afd_free(a, op);
}

static void netio__afd_completed(netio__afd *a, netio__afd_op *op)
{
    uint32_t status = (uint32_t)(ULONG_PTR)op->block.status;
    if (op->state == NETIO__AFD_CANCELLED) a->cancelled--;
    op->state = NETIO__AFD_IDLE;
    op->got = 0;
    if (status == 0 && op->info.count >= 1) op->got = op->info.events;
    // A request that failed says so as an event: the call that follows finds out.
    if (status >= 0xC0000000u && status != NETIO__NT_CANCELLED) op->got = NETIO__AFD_ABORT;
    // An answer to less than is wanted by now: asked again it has all of it, in one event.
    if ((op->want & ~op->asked) && !(op->got & (NETIO__AFD_LOCAL_CLOSE | NETIO__AFD_ABORT)))
        op->got = 0;
    a->in_flight--;
    if (op->dead) netio__afd_free(a, op);
    else netio__afd_push(op->got ? &a->answers : &a->submit, op);
}

// Takes completions in. Returns how many.
static int netio__afd_pump(netio__afd *a, int timeout_ms)
{
    OVERLAPPED_ENTRY list[NETIO__AFD_BATCH];
    ULONG n = 0;
    DWORD wait = timeout_ms < 0 ? INFINITE : (DWORD)timeout_ms;
    if (!GetQueuedCompletionStatusEx(a->port, list, NETIO__AFD_BATCH, &n, wait, FALSE)) return 0;
    for (ULONG i = 0; i < n; i++)
        netio__afd_completed(a, (netio__afd_op *)(void *)list[i].lpOverlapped);
    return (int)n;
}

static int netio__afd_open_device(netio__afd *a)
{
    static WCHAR name[] = {'\\', 'D', 'e',  'v', 'i', 'c', 'e', '\\', 'A',
                           'f',  'd', '\\', 'n', 'e', 't', 'i', 'o',  0};
    HMODULE dll = GetModuleHandleA("ntdll.dll");
    netio__nt_create create =
        dll ? (netio__nt_create)(void (*)(void))GetProcAddress(dll, "NtCreateFile") : NULL;
    netio__nt_status_block block;
    netio__nt_string path;
    netio__nt_object object;
    if (!create) return NETIO_ENOTSUP;
    a->control = (netio__nt_control)(void (*)(void))GetProcAddress(dll, "NtDeviceIoControlFile");
    a->cancel = (netio__nt_cancel)(void (*)(void))GetProcAddress(dll, "NtCancelIoFileEx");
    if (!a->control || !a->cancel) return NETIO_ENOTSUP;
    path.text = name;
    path.len = sizeof name - sizeof name[0];
    path.cap = sizeof name;
    memset(&object, 0, sizeof object);
    object.len = sizeof object;
    object.name = &path;
    if (create(&a->device, SYNCHRONIZE, &object, &block, NULL, 0,
               FILE_SHARE_READ | FILE_SHARE_WRITE, 1 /* FILE_OPEN */, 0, NULL, 0) < 0)
        return NETIO_ENOTSUP;
    a->port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1);
    if (!a->port) return netio__os_fail();
    return CreateIoCompletionPort(a->device, a->port, 0, 0) ? 0 : NETIO_ENOTSUP;
}

static void netio__afd_close(netio_poller *p)
{
    netio__afd *a = netio__afd_state(p);
    netio__afd_op *op;
    if (!a) return;
    for (size_t i = 0; i < a->ops_cap; i++)
        if (a->ops[i]) netio__afd_release(a, a->ops[i]);
    if (a->wake) netio__afd_release(a, a->wake);
    while (a->in_flight && netio__afd_pump(a, 5000) > 0) {}
    while ((op = netio__afd_pop(&a->submit)) != NULL) NETIO_FREE(op);
    while ((op = netio__afd_pop(&a->answers)) != NULL) NETIO_FREE(op);
    while ((op = a->spare) != NULL) {
        a->spare = op->next;
        NETIO_FREE(op);
    }
    if (a->device) CloseHandle(a->device);
    if (a->port) CloseHandle(a->port);
    NETIO_FREE(a->ops);
    NETIO_FREE(a);
}

static int netio__afd_open(netio_poller *p)
{
    netio__afd *a = (netio__afd *)NETIO_MALLOC(sizeof *a);
    if (!a) return NETIO_ENOMEM;
    memset(a, 0, sizeof *a);
    p->set = a;
    int err = netio__afd_open_device(a);
    if (err < 0) return err;
    a->wake = netio__afd_make(a, p->wake[0], NETIO__NO_SLOT);
    if (!a->wake) return netio__os_fail();
    a->wake->want = NETIO__AFD_RECEIVE;
    netio__afd_push(&a->submit, a->wake);
    return 0;
}

static int netio__afd_room(netio__afd *a, uint32_t slot)
{
    void *ops = a->ops;
    size_t cap = a->ops_cap;
    int err = netio__array_grow(&ops, &cap, (size_t)slot + 1, sizeof *a->ops);
    if (err < 0) return err;
    a->ops = (netio__afd_op **)ops;
    for (; a->ops_cap < cap; a->ops_cap++) a->ops[a->ops_cap] = NULL;
    return 0;
}

static int netio__afd_change(netio_poller *p, uint32_t slot, unsigned events)
{
    netio__afd *a = netio__afd_state(p);
    netio__afd_op *op = slot < a->ops_cap ? a->ops[slot] : NULL;
    if (!events) {
        if (op) netio__afd_release(a, op);
        if (op) a->ops[slot] = NULL;
        return 0;
    }
    if (!op) {
        uint16_t unused;
        int err =
            netio__os_identity(p->slots[slot].socket, &unused); // Wine has a base for anything
        if (err == 0) err = netio__afd_room(a, slot);
        if (err < 0) return err;
        op = netio__afd_make(a, p->slots[slot].socket, slot);
        if (!op) return netio__os_fail();
        a->ops[slot] = op;
    }
    op->want = (events & NETIO_EV_READ ? NETIO__AFD_IN : 0) |
               (events & NETIO_EV_WRITE ? NETIO__AFD_OUT : 0);
    if (op->state == NETIO__AFD_PENDING && (op->want & ~op->asked)) netio__afd_withdraw(a, op);
    if (op->state == NETIO__AFD_IDLE && !op->listed) netio__afd_push(&a->submit, op);
    return 0;
}

// A closed socket has answered with LOCAL_CLOSE. Its number may be another's by now.
static bool netio__afd_alive(netio_poller *p, uint32_t slot)
{
    netio__afd *a = netio__afd_state(p);
    netio__afd_op *op = a->ops[slot];
    int code = WSAGetLastError();
    if (op->state == NETIO__AFD_PENDING) netio__afd_pump(a, 0);
    bool alive =
        !(op->got & NETIO__AFD_LOCAL_CLOSE) && netio__afd_base(p->slots[slot].socket) == op->base;
    WSASetLastError(code);
    return alive;
}

static unsigned netio__afd_got(ULONG e)
{
    unsigned got = 0;
    if (e & NETIO__AFD_IN) got |= NETIO_EV_READ;
    if (e & NETIO__AFD_OUT) got |= NETIO_EV_WRITE;
    if (e & NETIO__AFD_DISCONNECT) got |= NETIO_EV_HINT_EOF;
    if (e & NETIO__AFD_EITHER) got |= NETIO_EV_HINT_ERROR;
    return got;
}

// Answers into `out`; each request is made again by the next wait.
static size_t netio__afd_collect(netio_poller *p, netio_event *out, size_t cap)
{
    netio__afd *a = netio__afd_state(p);
    size_t n = 0;
    for (netio__afd_op *op; n < cap && (op = netio__afd_pop(&a->answers)) != NULL;) {
        ULONG got = op->got;
        op->got = 0;
        if (op->dead) {
            netio__afd_free(a, op);
        } else if (op == a->wake) {
            netio__poller_woken(p);
            netio__afd_push(&a->submit, op);
        } else if (got & NETIO__AFD_LOCAL_CLOSE) {
            netio__drop_stale(p, op->slot);
        } else {
            netio__afd_push(&a->submit, op);
            n += netio__poller_report(p, op->slot, netio__afd_got(got & op->want), &out[n]);
        }
    }
    return n;
}

static void netio__afd_submit_all(netio__afd *a)
{
    for (netio__afd_op *op; (op = netio__afd_pop(&a->submit)) != NULL;) {
        if (op->dead) netio__afd_free(a, op);
        else netio__afd_submit(a, op);
    }
}

static ptrdiff_t netio__afd_wait(netio_poller *p, netio_event *out, size_t cap, int timeout_ms)
{
    netio__afd *a = netio__afd_state(p);
    // Never two requests for one socket: the driver may answer the wrong one, and the other never.
    while (a->cancelled && netio__afd_pump(a, 1000) > 0) {}
    netio__afd_submit_all(a);
    int n = netio__afd_pump(a, a->answers.head ? 0 : timeout_ms);
    // What was withdrawn in order to ask for more has come back: ask now, it may be ready.
    for (int round = 0; round < 4 && (a->submit.head || n == NETIO__AFD_BATCH); round++) {
        netio__afd_submit_all(a);
        n = netio__afd_pump(a, 0);
    }
    return (ptrdiff_t)netio__afd_collect(p, out, cap);
}

static const netio__poller_ops netio__afd_ops = {
    NETIO_BACKEND_AFD, false,           false, netio__afd_open, netio__afd_close, netio__afd_change,
    netio__afd_alive,  netio__afd_wait,
};
#endif // AFD

#if NETIO__HAS_POLLER
//================================================================================================
// The pollers' public calls
//================================================================================================

// In the order in which AUTO tries them.
static const netio__poller_ops *const netio__backends[] = {
#if NETIO__HAS_EPOLL
    &netio__epoll_ops,
#endif
#if NETIO__HAS_KQUEUE
    &netio__kqueue_ops,
#endif
#if NETIO__HAS_AFD
    &netio__afd_ops,
#endif
#if NETIO__HAS_WSAPOLL
    &netio__wsapoll_ops,
#endif
#if NETIO__HAS_POLL
    &netio__poll_ops,
#endif
#if NETIO__HAS_SELECT
    &netio__select_ops,
#endif
    NULL,
};

static const char *const netio__backend_names[] = {"auto",  "select", "poll", "wsapoll",
                                                   "epoll", "kqueue", "afd",  "iouring"};

NETIO_API const char *netio_backend_name(int backend)
{
    return backend < NETIO_BACKEND_AUTO || backend > NETIO_BACKEND_IOURING
               ? ""
               : netio__backend_names[backend];
}

NETIO_API bool netio_backend_available(int backend)
{
    netio_poller *p;
    if (netio_poller_open(&p, backend) < 0) return false;
    netio_poller_close(p);
    return true;
}

static int netio__poller_try(netio_poller **out, const netio__poller_ops *ops)
{
    netio_poller *p;
    int err = netio__os_start();
    if (err < 0) return err;
    p = (netio_poller *)NETIO_MALLOC(sizeof *p);
    if (!p) return NETIO_ENOMEM;
    memset(p, 0, sizeof *p);
    p->ops = ops;
    p->free_slot = NETIO__NO_SLOT;
    p->fd = -1;
    err = netio__wake_open(p->wake);
    if (err < 0) {
        NETIO_FREE(p);
        return err;
    }
    err = ops->open(p);
    if (err < 0) netio_poller_close(p);
    else *out = p;
    return err;
}

NETIO_API int netio_poller_open(netio_poller **out, int backend)
{
    int err = NETIO_ENOTSUP;
    if (!out) return NETIO_EINVAL;
    for (size_t i = 0; netio__backends[i] && err == NETIO_ENOTSUP; i++)
        if (backend == NETIO_BACKEND_AUTO || netio__backends[i]->backend == backend)
            err = netio__poller_try(out, netio__backends[i]);
    return err;
}

NETIO_API void netio_poller_close(netio_poller *p)
{
    if (!p) return;
    p->ops->close(p);
    netio__os_close(p->wake[0]);
    if (p->wake[1] != p->wake[0]) netio__os_close(p->wake[1]);
    NETIO_FREE(p->watch);
    NETIO_FREE(p->hash);
    NETIO_FREE(p->slots);
    NETIO_FREE(p);
}

static int netio__check_events(const netio_poller *p, unsigned events)
{
    unsigned known = NETIO__INTEREST | NETIO_EV_EDGE | NETIO_EV_ONESHOT;
    if (events & ~known) return NETIO_EINVAL;
    return (events & NETIO_EV_EDGE) && !p->ops->edge ? (int)NETIO_ENOTSUP : 0;
}

// Brings a slot to a new interest; on failure it stays as it was.
static int netio__slot_change(netio_poller *p, uint32_t slot, unsigned events, void *user)
{
    netio__slot *r = &p->slots[slot];
    uint8_t before = r->interest;
    unsigned wanted = events & NETIO__INTEREST;
    // Edge and one-shot begin anew even if nothing else changes.
    bool same =
        before == events && r->armed == wanted && !(events & (NETIO_EV_EDGE | NETIO_EV_ONESHOT));
    int err = 0;
    if ((before ^ events) & NETIO_EV_EDGE) netio__disarm(p, slot); // a knote keeps its kind
    r->interest = (uint8_t)events;
    if (!same && (wanted || r->armed)) err = p->ops->change(p, slot, wanted);
    if (err < 0) {
        r->interest = before;
        return err;
    }
    r->armed = (uint8_t)wanted;
    r->user = user;
    return 0;
}

NETIO_API int netio_poller_add(netio_poller *p, netio_socket s, unsigned events, void *user)
{
    uint16_t unused;
    int err = netio__check_events(p, events);
    if (err == 0 && s == NETIO_INVALID_SOCKET) err = NETIO_EBADF;
    // With an interest the backend finds out whether there is such a socket.
    if (err == 0 && !(events & NETIO__INTEREST)) err = netio__os_identity(s, &unused);
    if (err < 0) return err;
    uint32_t slot = netio__slot_find(p, s);
    if (slot != NETIO__NO_SLOT) {
        if (p->slots[slot].armed && p->ops->alive(p, slot)) return NETIO_EEXIST;
        // No interest, or a socket that was closed without remove: this one takes its place.
        if (p->slots[slot].armed) {
            netio__drop_stale(p, slot);
            slot = NETIO__NO_SLOT;
        }
    }
    bool fresh = slot == NETIO__NO_SLOT;
    if (fresh) {
        err = netio__hash_grow(p);
        if (err == 0) err = netio__slots_grow(p);
        if (err < 0) return err;
        slot = netio__slot_take(p, s);
    }
    err = netio__slot_change(p, slot, events, user);
    if (err < 0 && fresh) netio__slot_free(p, slot);
    return err;
}

NETIO_API int netio_poller_modify(netio_poller *p, netio_socket s, unsigned events, void *user)
{
    int err = netio__check_events(p, events);
    if (err < 0) return err;
    uint32_t slot = netio__slot_find(p, s);
    return slot == NETIO__NO_SLOT ? (int)NETIO_ENOENT : netio__slot_change(p, slot, events, user);
}

NETIO_API int netio_poller_remove(netio_poller *p, netio_socket s)
{
    uint32_t slot = netio__slot_find(p, s);
    if (slot == NETIO__NO_SLOT) return NETIO_ENOENT;
    netio__disarm(p, slot);
    netio__slot_free(p, slot);
    return 0;
}

NETIO_API int netio_poller_drop(netio_poller *p, netio_socket *s)
{
    if (!s) return NETIO_EBADF;
    if (*s != NETIO_INVALID_SOCKET) netio_poller_remove(p, *s);
    return netio_close(s);
}

// One-shot registrations that have spoken are disarmed, by the kernel where it knows them.
static void netio__poller_spent(netio_poller *p, const netio_event *events, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t slot = netio__slot_find(p, events[i].socket);
        if (slot == NETIO__NO_SLOT || !(p->slots[slot].interest & NETIO_EV_ONESHOT)) continue;
        if (p->ops->oneshot && p->slots[slot].pos == NETIO__NO_SLOT) p->slots[slot].armed = 0;
        else netio__disarm(p, slot);
    }
    p->spent = false;
}

NETIO_API ptrdiff_t netio_poller_wait(netio_poller *p, netio_event *events, size_t cap,
                                      int timeout_ms)
{
    netio__patience patience = netio__patient(timeout_ms);
    if (!events || cap == 0) return NETIO_EINVAL;
    if (cap > 512) cap = 512;
    for (;;) {
        int left = netio__patience_left(&patience);
        ptrdiff_t n = p->ops->wait(p, events, cap, left);
        bool woken = p->woken;
        p->woken = false;
        if (n > 0 && p->spent) netio__poller_spent(p, events, (size_t)n);
        if (n > 0 || (n < 0 && n != NETIO_EAGAIN)) return n;
        if (woken || timeout_ms == 0 || netio__patience_left(&patience) == 0) return 0;
    }
}

NETIO_API int netio_poller_wake(netio_poller *p) { return netio__wake_write(p->wake[1], false); }

NETIO_API int netio_poller_backend(const netio_poller *p) { return p->ops->backend; }

NETIO_API netio_socket netio_poller_fd(const netio_poller *p)
{
    return p->fd < 0 ? NETIO_INVALID_SOCKET : (netio_socket)p->fd;
}

NETIO_API size_t netio_poller_count(const netio_poller *p) { return p->count; }

NETIO_API uint64_t netio_poller_stale(const netio_poller *p) { return p->stale; }
#endif // NETIO__HAS_POLLER

#ifndef NETIO_NO_FRAME
//================================================================================================
// >>frame.c
//
// A codec sees the bytes not yet used up as one piece and says: here is a frame, I need so many
// more, or this is wrong. The decoder brings the piece together. While frames lie whole in what was
// fed they are handed out from there; only the frame that a cut goes through is copied to `buf`,
// and no byte behind it. A frame left out by `skip` is dropped up to its delimiter as it comes.
//================================================================================================

typedef struct netio__codec {
    int (*check)(const netio_framing *f); // NULL: nothing can be wrong
    // > 0: bytes used up, with a frame if out->data is set; 0: more, see netio__frame_wait; errors.
    ptrdiff_t (*next)(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out);
    // The same for what is left at the end. NULL: there must be nothing left.
    ptrdiff_t (*end)(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out);
    int (*encode)(netio_envelope *out, const netio_framing *f, const netio_frame *frame);
    // The whole frame, where encode says NETIO_ENOTSUP because the payload itself changes.
    ptrdiff_t (*into)(uint8_t *buf, size_t cap, const netio_framing *f, const netio_frame *frame);
} netio__codec;

#define NETIO__FRAME_MAX ((size_t)1 << 20) // of netio_framing.max 0
#define NETIO__FRAME_TOP (SIZE_MAX / 4)    // sums of a few sizes below it do not overflow

static netio_framing netio__framing(int format, size_t max)
{
    netio_framing f;
    memset(&f, 0, sizeof f);
    f.format = format;
    f.max = max;
    return f;
}

// Largest payload; in a decoder's own framing it stands in `max`.
static size_t netio__framing_max(const netio_framing *f)
{
    size_t usual = f->format == NETIO_FORMAT_RAW ? NETIO__FRAME_TOP : NETIO__FRAME_MAX;
    if (f->max == 0) return usual;
    return f->max < NETIO__FRAME_TOP ? f->max : NETIO__FRAME_TOP;
}

// What a codec returns when it needs bytes up to `need`, or up to the next `stop` (-1: none).
static ptrdiff_t netio__frame_wait(netio_decoder *d, size_t need, int stop)
{
    d->need = need;
    d->stop = stop;
    return 0;
}

static int netio__frame_over(netio_decoder *d, uint64_t size)
{
    d->announced = size;
    return NETIO_EMSGSIZE;
}

// Grow the buffer to `want` bytes, doubling, but not past `most`.
static int netio__frame_reserve(netio_decoder *d, size_t want, size_t most)
{
    size_t cap = d->cap < 128 ? 256 : d->cap < NETIO__FRAME_TOP ? d->cap * 2 : d->cap;
    if (want <= d->cap) return 0;
    if (!d->owned) return NETIO_ENOBUFS;
    if (cap > most) cap = most;
    if (cap < want) cap = want;
    void *buf = NETIO_REALLOC(d->buf, cap);
    if (!buf) return NETIO_ENOMEM;
    d->buf = (uint8_t *)buf;
    d->cap = cap;
    return 0;
}

#if !defined(NETIO_NO_COBS) || !defined(NETIO_NO_SLIP) || !defined(NETIO_NO_WEBSOCKET)
// Room for n bytes behind what the codec keeps. If the bytes that it reads are in the buffer, too,
// this lies at or below them: it must not write more than it has read. NULL: see d->err.
static uint8_t *netio__frame_room(netio_decoder *d, size_t n)
{
    if (!d->held)
        d->err = netio__frame_reserve(d, d->kept + n, d->framing.max + sizeof(netio_envelope));
    return d->err < 0 ? NULL : d->buf + d->kept;
}
#endif

// The byte behind the first `mark` whose last byte stands at `from` or later; 0: there is none.
static size_t netio__frame_find(const uint8_t *p, size_t len, size_t from, const uint8_t *mark,
                                size_t mark_len)
{
    size_t before = mark_len - 1;
    if (before == 0) {
        const void *at = from < len ? memchr(p + from, mark[0], len - from) : NULL;
        return at ? (size_t)((const uint8_t *)at - p) + 1 : 0;
    }
    for (size_t i = from > before ? from : before; i < len; i++) {
        const uint8_t *at = (const uint8_t *)memchr(p + i, mark[before], len - i);
        if (!at) break;
        i = (size_t)(at - p);
        if (memcmp(at - before, mark, before) == 0) return i + 1;
    }
    return 0;
}

NETIO__COLD static uint64_t netio__frame_uint_any(const uint8_t *p, size_t width, bool little)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) value = value << 8 | p[little ? width - 1 - i : i];
    return value;
}

static uint64_t netio__frame_uint(const uint8_t *p, size_t width, bool little)
{
    if (width != 4 || little) return netio__frame_uint_any(p, width, little);
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; // most are so
}

static void netio__frame_put_uint(uint8_t *p, size_t width, bool little, uint64_t value)
{
    for (size_t i = 0; i < width; i++, value >>= 8)
        p[little ? i : width - 1 - i] = (uint8_t)(value & 0xFF);
}

#if !defined(NETIO_NO_LINE) || !defined(NETIO_NO_DELIMITER) || !defined(NETIO_NO_COBS) ||          \
    !defined(NETIO_NO_SLIP)
static int netio__delimiter_check(const netio_framing *f)
{
    size_t most = f->format == NETIO_FORMAT_DELIMITER ? sizeof f->delimiter : 1;
    return f->delimiter_len > 0 && f->delimiter_len <= most ? 0 : NETIO_EINVAL;
}
#endif

// --- raw -----------------------------------------------------------------------------------------

static ptrdiff_t netio__raw_next(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    out->data = p;
    out->len = len < d->framing.max ? len : d->framing.max;
    return (ptrdiff_t)out->len;
}

static int netio__raw_encode(netio_envelope *out, const netio_framing *f, const netio_frame *frame)
{
    (void)f, (void)frame;
    out->head_len = out->tail_len = 0;
    return 0;
}

// --- custom --------------------------------------------------------------------------------------

static int netio__custom_check(const netio_framing *f)
{
    return f->ops && f->ops->parse ? 0 : NETIO_EINVAL;
}

static ptrdiff_t netio__custom_next(netio_decoder *d, const uint8_t *p, size_t len,
                                    netio_frame *out)
{
    size_t need = 0, most = d->framing.max + sizeof(netio_envelope);
    if (len < d->mark) return netio__frame_wait(d, (size_t)d->mark, -1);
    ptrdiff_t used = d->framing.ops->parse(&d->framing, p, len, out, &need);
    d->mark = 0;
    if (used > 0) {
        if ((size_t)used > len) return NETIO_EINVAL;
        return out->data && out->len > d->framing.max ? netio__frame_over(d, out->len) : used;
    }
    memset(out, 0, sizeof *out); // parse may have begun to fill it in
    if (used < 0 || need > most || len >= most) {
        d->announced = need;
        return used < 0 ? used : (ptrdiff_t)NETIO_EMSGSIZE;
    }
    d->mark = need; // until then there is nothing to ask
    return netio__frame_wait(d, need > len ? need : most, -1);
}

static int netio__custom_encode(netio_envelope *out, const netio_framing *f,
                                const netio_frame *frame)
{
    return f->ops->wrap ? f->ops->wrap(out, f, frame) : NETIO_ENOTSUP;
}

NETIO_API netio_framing netio_framing_custom(const netio_format_ops *ops, void *user, size_t max)
{
    netio_framing f = netio__framing(NETIO_FORMAT_CUSTOM, max);
    f.ops = ops;
    f.user = user;
    return f;
}

// --- line, delimiter -----------------------------------------------------------------------------

#if !defined(NETIO_NO_LINE) || !defined(NETIO_NO_DELIMITER)
// No line end in `len` bytes.
NETIO__COLD static ptrdiff_t netio__line_more(netio_decoder *d, const uint8_t *p, size_t len)
{
    const netio_framing *f = &d->framing;
    size_t mark = f->delimiter_len, most = f->max + mark; // one more, if it is a CR
    bool cr = f->format == NETIO_FORMAT_LINE && (len != most || p[len - 1] == '\r');
    d->scan = len;
    if (len >= most + cr) return netio__frame_over(d, f->max + 1);
    return netio__frame_wait(d, most + cr, f->delimiter[mark - 1]);
}

static ptrdiff_t netio__line_next(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    const netio_framing *f = &d->framing;
    size_t mark = f->delimiter_len;
    size_t end = netio__frame_find(p, len, d->scan, f->delimiter, mark), size = end - mark;
    if (!end) return netio__line_more(d, p, len);
    // One CR before the LF belongs to the line end.
    if (f->format == NETIO_FORMAT_LINE && size > 0 && p[size - 1] == '\r') size--;
    d->scan = end - 1;
    if (size > f->max) return netio__frame_over(d, f->max + 1);
    out->data = p;
    out->len = f->keep ? end : size;
    return (ptrdiff_t)end;
}
#endif

#ifndef NETIO_NO_LINE
static ptrdiff_t netio__line_end(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    if (len == 0) return NETIO_EOF;
    if (len > d->framing.max) return netio__frame_over(d, d->framing.max + 1);
    out->data = p;
    out->len = len;
    return (ptrdiff_t)len;
}

NETIO_API netio_framing netio_framing_line(size_t max)
{
    netio_framing f = netio__framing(NETIO_FORMAT_LINE, max);
    f.delimiter_len = 1;
    f.delimiter[0] = '\n';
    return f;
}
#endif

#if !defined(NETIO_NO_LINE) || !defined(NETIO_NO_DELIMITER)
static int netio__line_encode(netio_envelope *out, const netio_framing *f, const netio_frame *frame)
{
    uint8_t seam[2 * sizeof f->delimiter]; // the payload's end may make a delimiter with this one
    size_t mark = f->delimiter_len, n = frame->len < mark - 1 ? frame->len : mark - 1;
    size_t end = netio__frame_find(frame->data, frame->len, 0, f->delimiter, mark);
    bool cr = f->format == NETIO_FORMAT_LINE && f->crlf;
    out->head_len = out->tail_len = 0;
    if (end) return f->keep && end == frame->len ? 0 : NETIO_EINVAL; // the peer would see two
    if (n > 0) memcpy(seam, frame->data + frame->len - n, n);
    memcpy(seam + n, f->delimiter, mark);
    if (netio__frame_find(seam, n + mark, 0, f->delimiter, mark) < n + mark) return NETIO_EINVAL;
    out->tail_len = mark + cr;
    out->tail[0] = '\r';
    memcpy(out->tail + cr, f->delimiter, mark);
    return 0;
}
#endif

#ifndef NETIO_NO_DELIMITER
NETIO_API netio_framing netio_framing_delimiter(const void *delimiter, size_t len, size_t max)
{
    netio_framing f = netio__framing(NETIO_FORMAT_DELIMITER, max);
    if (len > sizeof f.delimiter) return f; // without a delimiter it is refused where it is used
    f.delimiter_len = (uint8_t)len;
    if (len) memcpy(f.delimiter, delimiter, len);
    return f;
}
#endif

// --- fixed ---------------------------------------------------------------------------------------

#ifndef NETIO_NO_FIXED
static int netio__fixed_check(const netio_framing *f) { return f->max > 0 ? 0 : NETIO_EINVAL; }

static ptrdiff_t netio__fixed_next(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    if (len < d->framing.max) return netio__frame_wait(d, d->framing.max, -1);
    return netio__raw_next(d, p, len, out);
}

static int netio__fixed_encode(netio_envelope *out, const netio_framing *f,
                               const netio_frame *frame)
{
    return frame->len == f->max ? netio__raw_encode(out, f, frame) : NETIO_EMSGSIZE;
}

NETIO_API netio_framing netio_framing_fixed(size_t size)
{
    return netio__framing(NETIO_FORMAT_FIXED, size);
}
#endif

// --- length --------------------------------------------------------------------------------------

#ifndef NETIO_NO_LENGTH
static bool netio__length_apart(size_t a, size_t a_len, size_t b, size_t b_len)
{
    return a + a_len <= b || b + b_len <= a;
}

static int netio__length_check(const netio_framing *f)
{
    bool width = f->width == 1 || f->width == 2 || f->width == 3 || f->width == 4 || f->width == 8;
    size_t sum = f->check ? 4 : 0;
    if (!width || f->offset + f->width > f->header || f->check > NETIO_CHECK_CRC32C ||
        (sum && f->check_offset + sum > f->header) || f->magic_len > sizeof f->magic ||
        f->magic_len > f->header || !netio__length_apart(0, f->magic_len, f->offset, f->width))
        return NETIO_EINVAL;
    return netio__length_apart(f->check_offset, sum, f->offset, f->width) &&
                   netio__length_apart(f->check_offset, sum, 0, f->magic_len)
               ? 0
               : NETIO_EINVAL;
}

static uint32_t netio__length_sum(const netio_framing *f, const uint8_t *header,
                                  const uint8_t *data, size_t len)
{
    static uint32_t (*const sums[])(uint32_t, const void *, size_t) = {
        NULL, netio_sum32, netio_crc32, netio_crc32c}; // by NETIO_CHECK_*
    static const uint8_t zeros[4] = {0, 0, 0, 0};
    size_t behind = (size_t)f->check_offset + 4;
    uint32_t sum = sums[f->check](0, header, f->check_offset);
    sum = sums[f->check](sum, zeros, 4);
    sum = sums[f->check](sum, header + behind, f->header - behind);
    return sums[f->check](sum, data, len);
}

static ptrdiff_t netio__length_verify(netio_decoder *d, const netio_frame *frame)
{
    const netio_framing *f = &d->framing;
    uint32_t sum = netio__length_sum(f, frame->header, frame->data, frame->len);
    if (netio__frame_uint(frame->header + f->check_offset, 4, f->little) == sum)
        return (ptrdiff_t)(f->header + frame->len);
    d->announced = frame->len;
    return NETIO_EBADMSG;
}

// What can be said of a header that is not whole, and of its magic. Returns 1: go on.
NETIO__COLD static ptrdiff_t netio__length_early(netio_decoder *d, const uint8_t *p, size_t len)
{
    const netio_framing *f = &d->framing;
    size_t magic = f->magic_len < len ? f->magic_len : len;
    if (magic && memcmp(p, f->magic, magic) != 0) return NETIO_EPROTO;
    return len < (size_t)f->offset + f->width ? netio__frame_wait(d, f->header, -1) : 1;
}

static ptrdiff_t netio__length_next(netio_decoder *d, const uint8_t *p, size_t len,
                                    netio_frame *out)
{
    const netio_framing *f = &d->framing;
    size_t header = f->header;
    ptrdiff_t early = len < header || f->magic_len ? netio__length_early(d, p, len) : 1;
    if (early <= 0) return early;
    uint64_t value = netio__frame_uint(p + f->offset, f->width, f->little);
    uint64_t size = value + (uint64_t)(int64_t)f->adjust;
    if (size > f->max || value >> 63) { // with more than that the sum could wrap around
        if (f->adjust < 0 && size > value) return NETIO_EPROTO; // shorter than its own header
        return netio__frame_over(d, value >> 63 ? value : size);
    }
    if (len < header) return netio__frame_wait(d, header, -1);
    if (len - header < size) return netio__frame_wait(d, header + (size_t)size, -1);
    out->header = p;
    out->header_len = header;
    out->data = p + header;
    out->len = (size_t)size;
    return f->check ? netio__length_verify(d, out) : (ptrdiff_t)(header + (size_t)size);
}

static int netio__length_encode(netio_envelope *out, const netio_framing *f,
                                const netio_frame *frame)
{
    int64_t value = (int64_t)frame->len - f->adjust;
    if (frame->header && frame->header_len != f->header) return NETIO_EINVAL;
    if (value < 0 || (f->width < 8 && value >> 8 * f->width)) return NETIO_EMSGSIZE;
    out->head_len = f->header;
    out->tail_len = 0;
    if (frame->header) memcpy(out->head, frame->header, f->header);
    else memset(out->head, 0, f->header);
    memcpy(out->head, f->magic, f->magic_len);
    netio__frame_put_uint(out->head + f->offset, f->width, f->little, (uint64_t)value);
    if (f->check) {
        uint32_t sum = netio__length_sum(f, out->head, frame->data, frame->len);
        netio__frame_put_uint(out->head + f->check_offset, 4, f->little, sum);
    }
    return 0;
}

NETIO_API netio_framing netio_framing_length(int width, size_t max)
{
    netio_framing f = netio__framing(NETIO_FORMAT_LENGTH, max);
    f.width = width > 0 && width <= 8 ? (uint8_t)width : 0; // 0 is refused where it is used
    f.header = f.width;
    return f;
}
#endif

// --- varint --------------------------------------------------------------------------------------

#ifndef NETIO_NO_VARINT
static ptrdiff_t netio__varint_next(netio_decoder *d, const uint8_t *p, size_t len,
                                    netio_frame *out)
{
    uint64_t size = 0;
    size_t n = 0;
    do {
        if (n == len) return netio__frame_wait(d, n + 1, -1);
        if (n == 9 && p[n] > 1) return NETIO_EPROTO; // more than 64 bits, or than ten bytes
        size |= (uint64_t)(p[n] & 0x7F) << 7 * n;
    } while (p[n++] & 0x80);
    if (n > 1 && p[n - 1] == 0 && !d->framing.lax) return NETIO_EPROTO;
    if (size > d->framing.max) return netio__frame_over(d, size);
    if (len - n < (size_t)size) return netio__frame_wait(d, n + (size_t)size, -1);
    out->data = p + n;
    out->len = (size_t)size;
    return (ptrdiff_t)(n + out->len);
}

static int netio__varint_encode(netio_envelope *out, const netio_framing *f,
                                const netio_frame *frame)
{
    size_t n = 0;
    (void)f;
    for (uint64_t left = frame->len; n == 0 || left; left >>= 7)
        out->head[n++] = (uint8_t)((left & 0x7F) | (left > 0x7F ? 0x80u : 0));
    out->head_len = n;
    out->tail_len = 0;
    return 0;
}

NETIO_API netio_framing netio_framing_varint(size_t max)
{
    return netio__framing(NETIO_FORMAT_VARINT, max);
}
#endif

// --- netstring -----------------------------------------------------------------------------------

#ifndef NETIO_NO_NETSTRING
static ptrdiff_t netio__netstring_next(netio_decoder *d, const uint8_t *p, size_t len,
                                       netio_frame *out)
{
    uint64_t size = 0;
    size_t n = 0;
    for (; n < len && p[n] >= '0' && p[n] <= '9'; n++) {
        unsigned digit = p[n] - (unsigned)'0';
        if (n == 1 && p[0] == '0') return NETIO_EPROTO; // "05:"
        if (n == 20) return netio__frame_over(d, UINT64_MAX);
        size = size > (UINT64_MAX - digit) / 10 ? UINT64_MAX : size * 10 + digit;
    }
    if (n == len) return netio__frame_wait(d, 21, ':');
    if (n == 0 || p[n] != ':') return NETIO_EPROTO;
    if (size > d->framing.max) return netio__frame_over(d, size);
    size_t comma = n + 1 + (size_t)size;
    if (len <= comma) return netio__frame_wait(d, comma + 1, -1);
    if (p[comma] != ',') return NETIO_EPROTO;
    out->data = p + n + 1;
    out->len = (size_t)size;
    return (ptrdiff_t)comma + 1;
}

static int netio__netstring_encode(netio_envelope *out, const netio_framing *f,
                                   const netio_frame *frame)
{
    uint8_t digits[20];
    size_t n = 0;
    (void)f;
    for (size_t left = frame->len; n == 0 || left; left /= 10)
        digits[n++] = (uint8_t)('0' + left % 10);
    out->head_len = n + 1;
    for (size_t i = 0; i < n; i++) out->head[i] = digits[n - 1 - i];
    out->head[n] = ':';
    out->tail_len = 1;
    out->tail[0] = ',';
    return 0;
}

NETIO_API netio_framing netio_framing_netstring(size_t max)
{
    return netio__framing(NETIO_FORMAT_NETSTRING, max);
}
#endif

#if !defined(NETIO_NO_COBS) || !defined(NETIO_NO_SLIP)
static int netio__stuffed_encode(netio_envelope *out, const netio_framing *f,
                                 const netio_frame *frame)
{
    (void)out, (void)f, (void)frame;
    return NETIO_ENOTSUP; // the payload itself changes
}
#endif

// --- cobs ----------------------------------------------------------------------------------------
// Blocks of a length byte and length - 1 bytes other than zero. A zero follows each block but the
// last, and but those of length 255. (S. Cheshire, M. Baker: Consistent Overhead Byte Stuffing.)

#ifndef NETIO_NO_COBS
static size_t netio__cobs_size(const uint8_t *p, size_t len) // decoded; SIZE_MAX: not COBS
{
    size_t size = 0, at = 0;
    while (at < len) {
        size_t block = p[at];
        if (block > len - at) return SIZE_MAX; // the zero that ends the frame is inside the block
        at += block;
        size += block - 1 + (block < 255 && at < len);
    }
    return size;
}

static ptrdiff_t netio__cobs_next(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    size_t max = d->framing.max, most = max + max / 254 + 2, n = len < most ? len : most;
    size_t end = netio__frame_find(p, n, d->scan, d->framing.delimiter, 1), raw = end - 1, size;
    d->scan = end ? raw : n;
    if (!end) return n == most ? netio__frame_over(d, max + 1) : netio__frame_wait(d, most, 0);
    if (raw == 0) return 1; // only a delimiter, as some send to begin with
    size = netio__cobs_size(p, raw);
    if (size == SIZE_MAX) return NETIO_EPROTO;
    if (size > max) return netio__frame_over(d, max + 1);
    out->data = p + 1;
    out->len = size;
    if (p[0] == raw) return (ptrdiff_t)end; // a single block: it lies there as it was
    uint8_t *to = netio__frame_room(d, raw);
    if (!to) return d->err;
    out->data = to;
    for (size_t at = 0, block; at < raw; at += block) {
        block = p[at];
        memmove(to, p + at + 1, block - 1);
        to += block - 1;
        if (block < 255 && at + block < raw) *to++ = 0;
    }
    return (ptrdiff_t)end;
}

static ptrdiff_t netio__cobs_into(uint8_t *buf, size_t cap, const netio_framing *f,
                                  const netio_frame *frame)
{
    static const uint8_t zero[1] = {0};
    netio_cursor out = netio_cursor_put(buf, cap);
    const uint8_t *p = frame->data;
    size_t left = frame->len;
    bool more = true; // payload, or the end that a last zero needs
    (void)f;
    while (more) {
        size_t most = left < 254 ? left : 254, end = netio__frame_find(p, most, 0, zero, 1);
        size_t block = end ? end - 1 : most;
        netio_put_uint(&out, 1, block + 1);
        netio_put_bytes(&out, p, block);
        if (end) block = end;
        left -= block;
        p += block;
        more = end || left > 0;
    }
    netio_put_uint(&out, 1, 0);
    return out.err ? (ptrdiff_t)NETIO_ENOSPC : (ptrdiff_t)out.off;
}

NETIO_API netio_framing netio_framing_cobs(size_t max)
{
    netio_framing f = netio__framing(NETIO_FORMAT_COBS, max);
    f.delimiter_len = 1; // a zero
    return f;
}
#endif

// --- slip ----------------------------------------------------------------------------------------

#ifndef NETIO_NO_SLIP
#define NETIO__SLIP_END 0xC0
#define NETIO__SLIP_ESC 0xDB
#define NETIO__SLIP_ESC_END 0xDC
#define NETIO__SLIP_ESC_ESC 0xDD

static void netio__slip_unescape(uint8_t *to, const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len, *escape = p;
    while (p < end) {
        escape = (const uint8_t *)memchr(p, NETIO__SLIP_ESC, (size_t)(end - p));
        size_t run = (size_t)((escape ? escape : end) - p);
        memmove(to, p, run);
        to += run;
        p += run;
        if (!escape) break;
        *to++ = p[1] == NETIO__SLIP_ESC_END ? NETIO__SLIP_END : NETIO__SLIP_ESC;
        p += 2;
    }
}

static ptrdiff_t netio__slip_next(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    size_t i = d->scan, escapes = i ? (size_t)d->mark : 0, max = d->framing.max;
    int bad = 0;
    for (; i < len && p[i] != NETIO__SLIP_END; i++) {
        if (p[i] == NETIO__SLIP_ESC) {
            if (i + 1 == len) break;
            i++;
            escapes++;
            if (p[i] != NETIO__SLIP_ESC_END && p[i] != NETIO__SLIP_ESC_ESC) bad = NETIO_EPROTO;
        }
        if (i - escapes >= max && !bad) bad = netio__frame_over(d, max + 1);
        if (bad) break;
    }
    d->scan = i;
    if (bad) return bad;
    d->mark = escapes;
    if (i == len || p[i] != NETIO__SLIP_END)
        return netio__frame_wait(d, 2 * max + 2, NETIO__SLIP_END);
    if (i == 0) return 1; // END also stands before a frame, to end what noise may have begun
    out->data = p;
    out->len = i - escapes;
    if (escapes) {
        uint8_t *to = netio__frame_room(d, i);
        if (!to) return d->err;
        netio__slip_unescape(to, p, i);
        out->data = to;
    }
    return (ptrdiff_t)i + 1;
}

static ptrdiff_t netio__slip_into(uint8_t *buf, size_t cap, const netio_framing *f,
                                  const netio_frame *frame)
{
    netio_cursor out = netio_cursor_put(buf, cap);
    (void)f;
    if (frame->len == 0) return NETIO_EINVAL;
    netio_put_uint(&out, 1, NETIO__SLIP_END);
    for (size_t i = 0; i < frame->len && !out.err; i++) {
        uint8_t c = frame->data[i];
        if (c == NETIO__SLIP_END || c == NETIO__SLIP_ESC) netio_put_uint(&out, 1, NETIO__SLIP_ESC);
        if (c == NETIO__SLIP_END) c = NETIO__SLIP_ESC_END;
        if (c == NETIO__SLIP_ESC) c = NETIO__SLIP_ESC_ESC;
        netio_put_uint(&out, 1, c);
    }
    netio_put_uint(&out, 1, NETIO__SLIP_END);
    return out.err ? (ptrdiff_t)NETIO_ENOSPC : (ptrdiff_t)out.off;
}

NETIO_API netio_framing netio_framing_slip(size_t max)
{
    netio_framing f = netio__framing(NETIO_FORMAT_SLIP, max);
    f.delimiter_len = 1;
    f.delimiter[0] = NETIO__SLIP_END;
    return f;
}
#endif

// --- all of them ---------------------------------------------------------------------------------

#ifndef NETIO_NO_CHUNKED
static ptrdiff_t netio__chunked_next(netio_decoder *d, const uint8_t *p, size_t len,
                                     netio_frame *out);
static ptrdiff_t netio__chunked_end(netio_decoder *d, const uint8_t *p, size_t len,
                                    netio_frame *out);
static int netio__chunked_encode(netio_envelope *out, const netio_framing *f,
                                 const netio_frame *frame);
#endif
#ifndef NETIO_NO_WEBSOCKET
static ptrdiff_t netio__ws_next(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out);
static ptrdiff_t netio__ws_end(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out);
static int netio__ws_encode(netio_envelope *out, const netio_framing *f, const netio_frame *frame);
static ptrdiff_t netio__ws_into(uint8_t *buf, size_t cap, const netio_framing *f,
                                const netio_frame *frame);
#endif
#ifndef NETIO_NO_HTTP
static ptrdiff_t netio__head_next(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out);
#endif

// clang-format off
#define NETIO__NO_CODEC {NULL, NULL, NULL, NULL, NULL}

static const netio__codec netio__codecs[] = { // by NETIO_FORMAT_*
    {NULL, netio__raw_next, NULL, netio__raw_encode, NULL},
#ifndef NETIO_NO_LINE
    {netio__delimiter_check, netio__line_next, netio__line_end, netio__line_encode, NULL},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_DELIMITER
    {netio__delimiter_check, netio__line_next, NULL, netio__line_encode, NULL},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_FIXED
    {netio__fixed_check, netio__fixed_next, NULL, netio__fixed_encode, NULL},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_LENGTH
    {netio__length_check, netio__length_next, NULL, netio__length_encode, NULL},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_VARINT
    {NULL, netio__varint_next, NULL, netio__varint_encode, NULL},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_NETSTRING
    {NULL, netio__netstring_next, NULL, netio__netstring_encode, NULL},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_CHUNKED
    {NULL, netio__chunked_next, netio__chunked_end, netio__chunked_encode, NULL},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_COBS
    {netio__delimiter_check, netio__cobs_next, NULL, netio__stuffed_encode, netio__cobs_into},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_SLIP
    {netio__delimiter_check, netio__slip_next, NULL, netio__stuffed_encode, netio__slip_into},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_WEBSOCKET
    {NULL, netio__ws_next, netio__ws_end, netio__ws_encode, netio__ws_into},
#else
    NETIO__NO_CODEC,
#endif
#ifndef NETIO_NO_HTTP
    {NULL, netio__head_next, NULL, netio__raw_encode, NULL},
#else
    NETIO__NO_CODEC,
#endif
    {netio__custom_check, netio__custom_next, NULL, netio__custom_encode, NULL},
};
// clang-format on

static int netio__framing_check(const netio_framing *f)
{
    if (f->format < 0 || f->format > NETIO_FORMAT_CUSTOM) return NETIO_EINVAL;
    const netio__codec *codec = &netio__codecs[f->format];
    if (!codec->next) return NETIO_ENOTSUP;
    return codec->check ? codec->check(f) : 0;
}

// --- the decoder ---------------------------------------------------------------------------------
// [at, left) are the bytes not yet used up: in what was fed or, if `held`, in the buffer, and then
// [in, in_len) is what was fed and comes behind them.

static ptrdiff_t netio__decoder_drop(netio_decoder *d, const uint8_t *p, size_t len,
                                     netio_frame *out);

static void netio__decoder_begin(netio_decoder *d, const netio_framing *f)
{
    d->framing = *f;
    d->framing.max = netio__framing_max(f);
    d->next = netio__codecs[f->format].next;
}

NETIO_API int netio_decoder_init(netio_decoder *d, netio_framing framing, void *buf, size_t cap)
{
    int err = netio__framing_check(&framing);
    if (err < 0) return err;
    memset(d, 0, sizeof *d);
    netio__decoder_begin(d, &framing);
    d->buf = (uint8_t *)buf;
    d->cap = buf ? cap : 0;
    d->owned = buf == NULL;
    return 0;
}

NETIO_API void netio_decoder_free(netio_decoder *d)
{
    if (d->owned) NETIO_FREE(d->buf);
    memset(d, 0, sizeof *d);
    d->err = NETIO_EINVAL; // of those who use it all the same
}

NETIO_API int netio_decoder_set_framing(netio_decoder *d, netio_framing framing)
{
    int err = d->err < 0 ? d->err : netio__framing_check(&framing);
    if (err < 0) return err;
    netio__decoder_begin(d, &framing);
    d->kept = d->scan = 0;
    d->mark = 0;
    memset(d->state, 0, sizeof d->state);
    return 0;
}

NETIO_API int netio_decoder_feed(netio_decoder *d, const void *data, size_t len)
{
    if (d->err < 0) return d->err;
    if (d->ended || (!data && len)) return NETIO_EINVAL;
    if (d->held ? d->in_len : d->left) return NETIO_EBUSY;
    if (d->held) {
        d->in = (const uint8_t *)data;
        d->in_len = len;
    } else {
        d->at = (const uint8_t *)data;
        d->left = len;
    }
    return 0;
}

NETIO_API void netio_decoder_end(netio_decoder *d) { d->ended = true; }

// Move to the buffer, where `n` bytes more find room behind those held; it grows up to `most` bytes
// behind what the codec keeps.
static int netio__decoder_hold(netio_decoder *d, size_t n, size_t most)
{
    size_t from = d->held ? (size_t)(d->at - d->buf) : d->kept, len = d->held ? d->left : 0;
    if (d->cap - from - len < n) {
        if (from > d->kept) memmove(d->buf + d->kept, d->at, len);
        if (from > d->kept) d->at = d->buf + d->kept;
        from = d->kept;
        int err = netio__frame_reserve(d, from + len + n, from + most);
        if (err < 0) return err;
    }
    if (!d->held) {
        d->in = d->at;
        d->in_len = d->left;
        d->left = 0;
        d->held = true;
    }
    d->at = d->buf + from;
    return 0;
}

// Where bytes behind those held go.
static uint8_t *netio__decoder_tail(const netio_decoder *d)
{
    return d->buf + (d->at - d->buf) + d->left;
}

static int netio__decoder_copy(netio_decoder *d, size_t n, size_t most)
{
    int err = netio__decoder_hold(d, n, most);
    if (err < 0) return err;
    memcpy(netio__decoder_tail(d), d->in, n);
    d->left += n;
    d->in += n;
    d->in_len -= n;
    return 0;
}

NETIO_API int netio_decoder_keep(netio_decoder *d)
{
    size_t n = d->held ? d->in_len : d->left;
    return n ? netio__decoder_copy(d, n, d->left + n) : 0;
}

static void netio__decoder_advance(netio_decoder *d, size_t n)
{
    d->at += n;
    d->left -= n;
    d->offset += n;
    d->scan = 0;
}

// An idle decoder holds no memory.
static void netio__decoder_idle(netio_decoder *d)
{
    if (d->left || d->kept || (d->held && d->in_len)) return;
    d->held = false;
    if (!d->owned) return;
    NETIO_FREE(d->buf);
    d->buf = NULL;
    d->cap = 0;
}

// A frame that is left out: its bytes go, but for those that may begin the delimiter.
static ptrdiff_t netio__decoder_drop(netio_decoder *d, const uint8_t *p, size_t len,
                                     netio_frame *out)
{
    const netio_framing *f = &d->framing;
    size_t mark = f->delimiter_len, end = netio__frame_find(p, len, 0, f->delimiter, mark);
    (void)out;
    if (end) {
        d->next = netio__codecs[f->format].next;
        return (ptrdiff_t)end;
    }
    if (len >= mark) return (ptrdiff_t)(len - mark + 1);
    return netio__frame_wait(d, mark + f->max, f->delimiter[mark - 1]);
}

// Whether a bad frame is to be left out instead of being the end of it all. Before d->scan no
// delimiter can end.
static bool netio__decoder_drops(netio_decoder *d, ptrdiff_t err)
{
    const netio_framing *f = &d->framing;
    size_t before = (size_t)f->delimiter_len - 1;
    if (!f->skip || f->delimiter_len == 0 || (err != NETIO_EPROTO && err != NETIO_EMSGSIZE))
        return false;
    if (d->scan > before) netio__decoder_advance(d, d->scan - before);
    d->next = netio__decoder_drop;
    d->skipped++;
    return true;
}

// The frame that has begun needs more bytes. Returns 1: look again; 0: there are none; errors.
static int netio__decoder_more(netio_decoder *d)
{
    bool again = d->held; // all that was fed has been looked at, otherwise
    size_t n = again ? d->in_len : d->left;
    if (again && d->left == 0) {
        d->held = false;
        d->at = d->in;
        d->left = n;
        d->in_len = 0;
        return n > 0;
    }
    if (again && n) {
        NETIO_ASSERT(d->need > d->left);
        if (n > d->need - d->left) n = d->need - d->left;
        const void *stop = d->stop >= 0 ? memchr(d->in, d->stop, n) : NULL;
        if (stop) n = (size_t)((const uint8_t *)stop - d->in) + 1;
    }
    int err = n ? netio__decoder_copy(d, n, d->need) : 0;
    return err < 0 ? err : again && n;
}

static ptrdiff_t netio__decoder_finish(netio_decoder *d, netio_frame *out)
{
    const netio__codec *codec = &netio__codecs[d->framing.format];
    if (d->next == netio__decoder_drop) return codec->end ? NETIO_EOF : NETIO_ETRUNCATED;
    if (codec->end) return codec->end(d, d->at, d->left, out);
    return d->left || d->kept ? NETIO_ETRUNCATED : NETIO_EOF;
}

// What the codec found is no frame. Returns 1: look again, or out->data is set; 0; errors.
static ptrdiff_t netio__decoder_other(netio_decoder *d, ptrdiff_t used, netio_frame *out)
{
    if (used == 0) {
        bool last = d->ended && !(d->held && (d->in_len || d->left == 0));
        int r = last ? 0 : netio__decoder_more(d);
        if (r != 0 || !d->ended) return r;
        used = netio__decoder_finish(d, out);
    }
    if (used > 0) netio__decoder_advance(d, (size_t)used);
    else if (netio__decoder_drops(d, used)) out->data = NULL;
    else return used;
    return 1;
}

static ptrdiff_t netio__decoder_try(netio_decoder *d, netio_frame *out)
{
    memset(out, 0, sizeof *out);
    out->offset = d->offset;
    ptrdiff_t used = d->left ? d->next(d, d->at, d->left, out) : 0;
    if (used > 0) netio__decoder_advance(d, (size_t)used);
    return used;
}

NETIO__COLD static int netio__decoder_retry(netio_decoder *d, ptrdiff_t used, netio_frame *out)
{
    for (;; used = netio__decoder_try(d, out)) {
        if (used <= 0) used = netio__decoder_other(d, used, out);
        if (used <= 0) break;
        if (out->data) return 1;
    }
    netio__decoder_idle(d);
    // Memory may be there again later, and nothing was lost.
    d->err = used != NETIO_ENOMEM ? (int)used : 0;
    return (int)used;
}

NETIO_API int netio_decoder_next(netio_decoder *d, netio_frame *out)
{
    if (d->err < 0) return d->err;
    ptrdiff_t used = netio__decoder_try(d, out);
    return used > 0 && out->data ? 1 : netio__decoder_retry(d, used, out);
}

NETIO_API size_t netio_decoder_rest(const netio_decoder *d, netio_buf out[2])
{
    size_t count = d->left ? 1 : 0;
    out[0].data = d->at;
    out[0].len = d->left;
    if (!d->held || d->in_len == 0) return count;
    out[count].data = d->in;
    out[count].len = d->in_len;
    return count + 1;
}

NETIO_API void netio_decoder_blame(const netio_decoder *d, uint64_t *offset, uint64_t *announced)
{
    if (offset) *offset = d->offset;
    if (announced) *announced = d->announced;
}

NETIO_API uint64_t netio_decoder_skipped(const netio_decoder *d) { return d->skipped; }

// --- the encoder ---------------------------------------------------------------------------------

NETIO_API int netio_encode(netio_envelope *out, const netio_framing *framing,
                           const netio_frame *frame)
{
    int err = netio__framing_check(framing);
    if (err < 0) return err;
    if (frame->len && !frame->data) return NETIO_EINVAL;
    if (framing->format != NETIO_FORMAT_RAW && frame->len > netio__framing_max(framing))
        return NETIO_EMSGSIZE;
    return netio__codecs[framing->format].encode(out, framing, frame);
}

NETIO_API ptrdiff_t netio_encode_into(void *buf, size_t cap, const netio_framing *framing,
                                      const netio_frame *frame)
{
    netio_envelope e;
    netio_cursor out = netio_cursor_put(buf, cap);
    int err = netio_encode(&e, framing, frame);
    if (err == NETIO_ENOTSUP && netio__framing_check(framing) == 0) {
        const netio__codec *codec = &netio__codecs[framing->format];
        if (codec->into) return codec->into((uint8_t *)buf, cap, framing, frame);
    }
    if (err < 0) return err;
    netio_put_bytes(&out, e.head, e.head_len);
    netio_put_bytes(&out, frame->data, frame->len);
    netio_put_bytes(&out, e.tail, e.tail_len);
    return out.err ? (ptrdiff_t)NETIO_ENOSPC : (ptrdiff_t)out.off;
}

NETIO_API size_t netio_encode_bound(const netio_framing *framing, size_t len)
{
    if (len > NETIO__FRAME_TOP) return SIZE_MAX;
    return sizeof(netio_envelope) + len + (framing->format == NETIO_FORMAT_SLIP ? len : len / 254);
}

// --- cursors -------------------------------------------------------------------------------------

NETIO_API netio_cursor netio_cursor_get(const void *data, size_t len)
{
    netio_cursor cur;
    memset(&cur, 0, sizeof cur);
    cur.data = (const uint8_t *)data;
    cur.len = data ? len : 0;
    return cur;
}

NETIO_API netio_cursor netio_cursor_put(void *room, size_t cap)
{
    netio_cursor cur = netio_cursor_get(room, cap);
    cur.room = (uint8_t *)room;
    return cur;
}

// Where the next `n` bytes stand; NULL: err is set.
static const uint8_t *netio__cursor_step(netio_cursor *cur, size_t n)
{
    if (!cur->err && n > cur->len - cur->off) cur->err = NETIO_ETRUNCATED;
    if (cur->err) return NULL;
    cur->off += n;
    // A cursor over nothing has no place of its own, and NULL would say that it failed.
    return cur->data ? cur->data + (cur->off - n) : (const uint8_t *)"";
}

NETIO_API uint64_t netio_get_uint(netio_cursor *cur, int width)
{
    if (!cur->err && (width < 1 || width > 8)) cur->err = NETIO_EINVAL;
    const uint8_t *p = cur->err ? NULL : netio__cursor_step(cur, (size_t)width);
    return p ? netio__frame_uint(p, (size_t)width, cur->little) : 0;
}

NETIO_API void netio_put_uint(netio_cursor *cur, int width, uint64_t value)
{
    if (!cur->err && (width < 1 || width > 8 || !cur->room))
        cur->err = cur->room ? NETIO_EINVAL : NETIO_ETRUNCATED;
    if (!cur->err && width < 8 && value >> 8 * width) cur->err = NETIO_EMSGSIZE;
    const uint8_t *p = cur->err ? NULL : netio__cursor_step(cur, (size_t)width);
    if (p) netio__frame_put_uint(cur->room + (p - cur->data), (size_t)width, cur->little, value);
}

NETIO_API const void *netio_get_bytes(netio_cursor *cur, size_t len)
{
    return netio__cursor_step(cur, len);
}

NETIO_API void netio_put_bytes(netio_cursor *cur, const void *data, size_t len)
{
    const uint8_t *p = netio__cursor_step(cur, len);
    if (p && len) memcpy(cur->room + (p - cur->data), data, len);
}

// --- sums ----------------------------------------------------------------------------------------

NETIO_API uint32_t netio_sum32(uint32_t sum, const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    if (!p) len = 0;
    for (size_t i = 0; i < len; i++) sum += p[i];
    return sum;
}

// Four bits at a time, which needs a table of 16; from a few bytes on, 32 bits at a time with seven
// more tables, for nibbles that are followed by one to seven others. They follow from the first and
// are made where they are used: it takes as long as 16 bytes do without them.
static uint32_t netio__crc(const uint32_t first[16], uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    uint32_t t[8][16];
    if (!p) return crc;
    crc = ~crc;
    if (len >= 32) {
        memcpy(t[0], first, sizeof t[0]);
        for (int k = 1; k < 8; k++)
            for (int i = 0; i < 16; i++) t[k][i] = t[k - 1][i] >> 4 ^ first[t[k - 1][i] & 15];
        for (; len >= 4; len -= 4, p += 4) {
            crc ^= p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
            crc = t[7][crc & 15] ^ t[6][crc >> 4 & 15] ^ t[5][crc >> 8 & 15] ^
                  t[4][crc >> 12 & 15] ^ t[3][crc >> 16 & 15] ^ t[2][crc >> 20 & 15] ^
                  t[1][crc >> 24 & 15] ^ t[0][crc >> 28];
        }
    }
    for (; len > 0; len--, p++) {
        crc = crc >> 4 ^ first[(crc ^ *p) & 15];
        crc = crc >> 4 ^ first[(crc ^ *p >> 4) & 15];
    }
    return ~crc;
}

// clang-format off
NETIO_API uint32_t netio_crc32(uint32_t crc, const void *data, size_t len)
{
    static const uint32_t first[16] = { // polynomial 0xEDB88320
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158,
        0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4,
        0xA00AE278, 0xBDBDF21C};
    return netio__crc(first, crc, data, len);
}

NETIO_API uint32_t netio_crc32c(uint32_t crc, const void *data, size_t len)
{
    static const uint32_t first[16] = { // polynomial 0x82F63B78
        0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362,
        0x7198540D, 0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB,
        0xE330A81A, 0xF36E6F75};
    return netio__crc(first, crc, data, len);
}
// clang-format on

// --- UTF-8 ---------------------------------------------------------------------------------------

static uint64_t netio__utf8_word(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

// How many bytes from the first on are ASCII. 64 at a time, then 8.
static size_t netio__utf8_ascii(const uint8_t *p, size_t len)
{
    const uint64_t high = UINT64_C(0x8080808080808080);
    size_t i = 0;
    for (; len - i >= 64; i += 64) {
        uint64_t a = 0, b = 0;
        for (size_t k = 0; k < 64; k += 16) {
            a |= netio__utf8_word(p + i + k);
            b |= netio__utf8_word(p + i + k + 8);
        }
        if ((a | b) & high) break;
    }
    while (len - i >= 8 && !(netio__utf8_word(p + i) & high)) i += 8;
    while (i < len && p[i] < 0x80) i++;
    return i;
}

// What may follow a first byte: how many bytes, and the range of the next one, so that no longer
// form than needed, no surrogate and nothing past U+10FFFF passes (RFC 3629 section 4). 0: nothing.
static uint32_t netio__utf8_after(uint8_t c)
{
    uint32_t low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    uint32_t high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    uint32_t left = c < 0xC2 || c > 0xF4 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
    return left ? left | low << 8 | high << 16 : 0;
}

NETIO_API int netio_utf8_check(uint32_t *state, const void *data, size_t len, size_t *bad)
{
    const uint8_t *p = (const uint8_t *)data;
    uint32_t s = *state;
    size_t i = 0;
    if (!p) len = 0;
    for (bool good = true; i < len; i += good) {
        if (s == 0) {
            i += netio__utf8_ascii(p + i, len - i);
            if (i == len) break;
            s = netio__utf8_after(p[i]);
            good = s != 0;
        } else {
            good = p[i] >= (s >> 8 & 0xFF) && p[i] <= s >> 16;
            if (good) s = (s & 0xFF) > 1 ? (s & 0xFF) - 1 + 0xBF8000u : 0;
        }
        if (!good) {
            *state = s;
            if (bad) *bad = i;
            return NETIO_EILSEQ;
        }
    }
    *state = s;
    return 0;
}
#endif // NETIO_NO_FRAME

#if !defined(NETIO_NO_STREAM) && !defined(NETIO_NO_FRAME)
//================================================================================================
// >>stream.c
//================================================================================================

#define NETIO__STREAM_READ 16384 // bytes asked for at once when the decoder has no buffer of yours

static ptrdiff_t netio__stream_recv(void *self, void *buf, size_t cap, int timeout_ms)
{
    return netio_recv((netio_socket)(intptr_t)self, buf, cap, timeout_ms);
}

static ptrdiff_t netio__stream_sendv(void *self, const netio_buf *bufs, size_t count,
                                     int timeout_ms)
{
    return netio_sendv((netio_socket)(intptr_t)self, bufs, count, timeout_ms);
}

static int netio__stream_shutdown(void *self, int timeout_ms)
{
    (void)timeout_ms; // the OS takes the FIN into its queue
    return netio_shutdown((netio_socket)(intptr_t)self, NETIO_SHUT_WRITE);
}

static int netio__stream_close(void *self)
{
    netio_socket s = (netio_socket)(intptr_t)self;
    return netio_close(&s);
}

static const netio_stream_ops netio__stream_socket = {netio__stream_recv, netio__stream_sendv,
                                                      netio__stream_shutdown, netio__stream_close};

NETIO_API netio_stream netio_stream_from_socket(netio_socket s)
{
    netio_stream st;
    st.ops = &netio__stream_socket;
    st.self = (void *)(intptr_t)s;
    st.socket = s;
    return st;
}

NETIO_API ptrdiff_t netio_stream_recv(netio_stream *st, void *buf, size_t cap, int timeout_ms)
{
    if (!st->ops) return NETIO_EBADF;
    if (!st->ops->recv) return NETIO_ENOTSUP;
    return st->ops->recv(st->self, buf, cap, timeout_ms);
}

// What one step of several says: time that is over is the whole call's, and no progress is an error
// of the table, on which a loop would spin.
static ptrdiff_t netio__stream_step(ptrdiff_t r, const netio__patience *p)
{
    if (r == NETIO_EAGAIN) return netio__patience_over(p);
    return r == 0 ? (ptrdiff_t)NETIO_EIO : r;
}

NETIO_API int netio_stream_recv_exact(netio_stream *st, void *buf, size_t len, size_t *done,
                                      int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    size_t got = 0;
    ptrdiff_t r = 0;
    while (r >= 0 && got < len) {
        r = netio_stream_recv(st, (uint8_t *)buf + got, len - got, netio__patience_left(&p));
        r = netio__stream_step(r, &p);
        if (r > 0) got += (size_t)r;
    }
    if (done) *done = got;
    if (r == NETIO_EOF && got > 0) return NETIO_ETRUNCATED;
    return r < 0 ? (int)r : 0;
}

// Send all of the pieces, which are used up by it; `*done` counts bytes.
static int netio__stream_send(netio_stream *st, netio_buf *bufs, size_t count, size_t *done,
                              int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    *done = 0;
    if (!st->ops) return NETIO_EBADF;
    if (!st->ops->sendv) return NETIO_ENOTSUP;
    for (;;) {
        for (; count > 0 && bufs->len == 0; count--) bufs++;
        if (count == 0) return 0;
        ptrdiff_t r = st->ops->sendv(st->self, bufs, count, netio__patience_left(&p));
        r = netio__stream_step(r, &p);
        if (r < 0) return (int)r;
        *done += (size_t)r;
        for (size_t left = (size_t)r, cut; left > 0 && count > 0; left -= cut) {
            cut = left < bufs->len ? left : bufs->len;
            bufs->data = (const uint8_t *)bufs->data + cut;
            bufs->len -= cut;
            if (bufs->len == 0) bufs++, count--;
        }
    }
}

NETIO_API int netio_stream_send_all(netio_stream *st, const void *data, size_t len, size_t *done,
                                    int timeout_ms)
{
    netio_buf buf;
    size_t sent;
    buf.data = data;
    buf.len = len;
    return netio__stream_send(st, &buf, 1, done ? done : &sent, timeout_ms);
}

NETIO_API int netio_stream_shutdown(netio_stream *st, int timeout_ms)
{
    if (!st->ops) return NETIO_EBADF;
    return st->ops->shutdown ? st->ops->shutdown(st->self, timeout_ms) : NETIO_ENOTSUP;
}

NETIO_API int netio_stream_close(netio_stream *st)
{
    const netio_stream_ops *ops = st->ops;
    void *self = st->self;
    memset(st, 0, sizeof *st);
    st->socket = NETIO_INVALID_SOCKET;
    if (!ops) return NETIO_EBADF;
    return ops->close ? ops->close(self) : NETIO_ENOTSUP;
}

// Receive into the decoder's own buffer, behind what it holds: nothing is copied again.
static int netio__stream_fill(netio_stream *st, netio_decoder *d, netio__patience *p)
{
    size_t held = d->left + d->kept, n = NETIO__STREAM_READ;
    if (!d->owned && n > d->cap - held) n = d->cap - held;
    int err = netio__decoder_hold(d, n > 0 ? n : 1, d->need + NETIO__STREAM_READ);
    if (err < 0) return err;
    uint8_t *to = netio__decoder_tail(d);
    ptrdiff_t r =
        netio_stream_recv(st, to, (size_t)(d->buf + d->cap - to), netio__patience_left(p));
    r = netio__stream_step(r, p);
    if (r > 0) d->left += (size_t)r;
    else netio__decoder_idle(d);
    if (r == NETIO_EOF) netio_decoder_end(d);
    return r < 0 && r != NETIO_EOF ? (int)r : 0;
}

NETIO_API int netio_stream_read_frame(netio_stream *st, netio_decoder *d, netio_frame *out,
                                      int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    for (;;) {
        int r = netio_decoder_next(d, out);
        if (r == 0) r = netio__stream_fill(st, d, &p);
        else return r > 0 ? 0 : r;
        if (r < 0) return r;
    }
}

static int netio__stream_write_stuffed(netio_stream *st, const netio_framing *framing,
                                       const netio_frame *frame, int timeout_ms)
{
    size_t cap = netio_encode_bound(framing, frame->len);
    void *buf = NETIO_MALLOC(cap);
    if (!buf) return NETIO_ENOMEM;
    ptrdiff_t r = netio_encode_into(buf, cap, framing, frame);
    if (r > 0) r = netio_stream_send_all(st, buf, (size_t)r, NULL, timeout_ms);
    NETIO_FREE(buf);
    return (int)r;
}

NETIO_API int netio_stream_write_frame(netio_stream *st, const netio_framing *framing,
                                       const netio_frame *frame, int timeout_ms)
{
    netio_envelope e;
    netio_buf bufs[3];
    size_t sent;
    int err = netio_encode(&e, framing, frame);
    if (err == NETIO_ENOTSUP) return netio__stream_write_stuffed(st, framing, frame, timeout_ms);
    if (err < 0) return err;
    bufs[0].data = e.head;
    bufs[0].len = e.head_len;
    bufs[1].data = frame->data;
    bufs[1].len = frame->len;
    bufs[2].data = e.tail;
    bufs[2].len = e.tail_len;
    return netio__stream_send(st, bufs, 3, &sent, timeout_ms);
}

// Send what waits, then `data`. What did not go of the first stays.
static int netio__writer_send(netio_writer *w, const void *data, size_t len, int timeout_ms)
{
    netio_buf bufs[2];
    size_t sent;
    bufs[0].data = w->buf;
    bufs[0].len = w->len;
    bufs[1].data = data;
    bufs[1].len = len;
    int err = netio__stream_send(w->stream, bufs, 2, &sent, timeout_ms);
    size_t old = sent < w->len ? sent : w->len;
    if (old > 0) memmove(w->buf, w->buf + old, w->len - old);
    w->len -= old;
    w->done += sent - old;
    return err;
}

NETIO_API int netio_writer_due(const netio_writer *w)
{
    if (w->len == 0 || w->hold_ms <= 0) return -1;
    uint64_t waited = netio_now_ms() - w->since_ms;
    return waited < (uint64_t)w->hold_ms ? w->hold_ms - (int)waited : 0;
}

NETIO_API int netio_writer_write(netio_writer *w, const void *data, size_t len, int timeout_ms)
{
    w->done = 0;
    if (len == 0) return 0;
    if (len > w->cap) return netio__writer_send(w, data, len, timeout_ms);
    if (len > w->cap - w->len) {
        int err = netio_writer_flush(w, timeout_ms);
        if (err < 0) return err;
    }
    if (w->len == 0) w->since_ms = netio_now_ms();
    memcpy(w->buf + w->len, data, len);
    w->len += len;
    w->done = len;
    return w->len == w->cap || netio_writer_due(w) == 0 ? netio_writer_flush(w, timeout_ms) : 0;
}

NETIO_API int netio_writer_flush(netio_writer *w, int timeout_ms)
{
    return netio__writer_send(w, NULL, 0, timeout_ms);
}
#endif // NETIO_NO_STREAM

//================================================================================================
// >>queue.c
//
// A ring that grows.
//================================================================================================

struct netio_queue {
    uint8_t *buf;
    size_t head, len, cap, max;
};

NETIO_API int netio_queue_create(netio_queue **out, size_t max)
{
    netio_queue *q = (netio_queue *)NETIO_MALLOC(sizeof *q);
    if (!q) return NETIO_ENOMEM;
    memset(q, 0, sizeof *q);
    q->max = max;
    *out = q;
    return 0;
}

NETIO_API void netio_queue_destroy(netio_queue *q)
{
    if (q) NETIO_FREE(q->buf);
    NETIO_FREE(q);
}

NETIO_API netio_buf netio_queue_front(const netio_queue *q)
{
    netio_buf front;
    front.data = q->len ? q->buf + q->head : NULL;
    front.len = q->len < q->cap - q->head ? q->len : q->cap - q->head;
    return front;
}

static int netio__queue_grow(netio_queue *q, size_t need)
{
    size_t cap = q->cap < 128 ? 256 : q->cap < q->max / 2 ? q->cap * 2 : q->max;
    if (cap > q->max) cap = q->max;
    if (cap < need) cap = need;
    uint8_t *buf = (uint8_t *)NETIO_MALLOC(cap);
    size_t first = netio_queue_front(q).len;
    if (!buf) return NETIO_ENOMEM;
    if (first) memcpy(buf, q->buf + q->head, first);
    if (q->len > first) memcpy(buf + first, q->buf, q->len - first);
    NETIO_FREE(q->buf);
    q->buf = buf;
    q->head = 0;
    q->cap = cap;
    return 0;
}

NETIO_API int netio_queue_put(netio_queue *q, const void *data, size_t len)
{
    if (len == 0) return 0;
    if (len > q->max - q->len) return NETIO_ENOBUFS;
    int err = len > q->cap - q->len ? netio__queue_grow(q, q->len + len) : 0;
    if (err < 0) return err;
    size_t gap = q->cap - q->head; // from the head to where the block ends
    size_t tail = q->len < gap ? q->head + q->len : q->len - gap;
    size_t first = len < q->cap - tail ? len : q->cap - tail;
    memcpy(q->buf + tail, data, first);
    if (len > first) memcpy(q->buf, (const uint8_t *)data + first, len - first);
    q->len += len;
    return 0;
}

NETIO_API void netio_queue_drop(netio_queue *q, size_t len)
{
    size_t gap = q->cap - q->head;
    if (len > q->len) len = q->len;
    q->len -= len;
    q->head = q->len == 0 ? 0 : len < gap ? q->head + len : len - gap;
}

NETIO_API size_t netio_queue_len(const netio_queue *q) { return q->len; }

#ifndef NETIO_NO_FRAME
#if !defined(NETIO_NO_HTTP) || !defined(NETIO_NO_CHUNKED)
//================================================================================================
// >>http.c
//
// One pass cuts the head into pieces, one looks at the fields that decide how long the body is and
// where the request goes: in those two parsers must not differ.
//================================================================================================

// Letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 section 5.6.2), a bit for each character below 128.
static bool netio__http_token_char(char c)
{
    static const uint32_t bits[4] = {0, 0x03FF6CFA, 0xC7FFFFFE, 0x57FFFFFF};
    unsigned u = (unsigned char)c;
    return u < 128 && (bits[u / 32] >> u % 32 & 1);
}

static bool netio__http_is_token(const char *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!netio__http_token_char(p[i])) return false;
    return len > 0;
}

static bool netio__http_text_char(char c) // what a field's value may hold
{
    return ((unsigned char)c >= 0x20 || c == '\t') && c != 0x7F;
}

static bool netio__http_is_text(const char *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!netio__http_text_char(p[i])) return false;
    return true;
}

static netio_buf netio__http_piece(const char *p, size_t len)
{
    netio_buf out;
    out.data = p;
    out.len = len;
    return out;
}

static netio_buf netio__http_trim(const char *p, size_t len)
{
    while (len && (*p == ' ' || *p == '\t')) p++, len--;
    while (len && (p[len - 1] == ' ' || p[len - 1] == '\t')) len--;
    return netio__http_piece(p, len);
}

// --- lines and fields --------------------------------------------------------------------------

// The line at `*at`, without its CRLF. False: no whole line is left, or it holds what no line may.
static bool netio__http_line(netio_buf *out, const char *p, size_t len, size_t *at)
{
    const char *begin = p + *at, *end = (const char *)memchr(begin, '\n', len - *at);
    if (!end || end == begin || end[-1] != '\r') return false;
    *out = netio__http_piece(begin, (size_t)(end - begin) - 1);
    *at += out->len + 2;
    return netio__http_is_text(begin, out->len);
}

static bool netio__http_field_line(netio_buf *name, netio_buf *value, const char *p, size_t len)
{
    const char *colon = (const char *)memchr(p, ':', len);
    size_t n = colon ? (size_t)(colon - p) : 0;
    if (!netio__http_is_token(p, n)) return false; // also a folded line, which begins with a space
    *name = netio__http_piece(p, n);
    *value = netio__http_trim(p + n + 1, len - n - 1);
    return true;
}

// Whether these are whole lines of fields, each with its CRLF.
static bool netio__http_fields_ok(const char *p, size_t len)
{
    netio_buf line, name, value;
    for (size_t at = 0; at < len;)
        if (!netio__http_line(&line, p, len, &at) ||
            !netio__http_field_line(&name, &value, (const char *)line.data, line.len))
            return false;
    return true;
}

// --- lines up to an empty one, as they come ----------------------------------------------------

// What the byte before was. START is 0: how a block begins.
enum { NETIO__HTTP_START, NETIO__HTTP_INSIDE, NETIO__HTTP_CR, NETIO__HTTP_LAST_CR };

// Goes on at `*scan` in `*state`. Returns 1: the block and its empty line end at *scan; 0: they do
// not end in these bytes; NETIO_EPROTO: a byte that no head holds, or half a line end.
static int netio__http_scan(size_t *scan, uint32_t *state, const uint8_t *p, size_t len)
{
    while (*scan < len) {
        uint8_t c = p[(*scan)++];
        if (*state >= NETIO__HTTP_CR) {
            bool last = *state == NETIO__HTTP_LAST_CR;
            *state = NETIO__HTTP_START;
            if (c != '\n') return NETIO_EPROTO;
            if (last) return 1;
        } else if (c == '\r') {
            *state = *state == NETIO__HTTP_START ? NETIO__HTTP_LAST_CR : NETIO__HTTP_CR;
        } else {
            *state = NETIO__HTTP_INSIDE;
            if ((c < 0x20 && c != '\t') || c == 0x7F) return NETIO_EPROTO;
        }
    }
    return 0;
}
#endif

#ifndef NETIO_NO_CHUNKED
//================================================================================================
// >>chunked.c
//
// RFC 9112 section 7.1. The line of a chunk's size is where smugglers work, so it follows the
// grammar to the letter, extensions too: those are checked and left out.
//
//   SIZE --;--> NAME_BEGIN --> NAME --=--> VALUE_BEGIN --> VALUE or QUOTED --> QUOTE_END
//   SIZE, NAME, VALUE, QUOTE_END --;--> NAME_BEGIN, --blank--> BLANK, --CR--> CR --LF--> DONE
//================================================================================================

// clang-format off
typedef enum netio__chunk_state {
       NETIO__CHUNK_BEGIN, NETIO__CHUNK_SIZE, NETIO__CHUNK_BLANK, NETIO__CHUNK_NAME_BEGIN,
       NETIO__CHUNK_NAME, NETIO__CHUNK_NAME_BLANK, NETIO__CHUNK_VALUE_BEGIN, NETIO__CHUNK_VALUE,
       NETIO__CHUNK_QUOTED, NETIO__CHUNK_ESCAPE, NETIO__CHUNK_QUOTE_END, NETIO__CHUNK_CR,
       NETIO__CHUNK_DONE, NETIO__CHUNK_BAD } netio__chunk_state;
// clang-format on

#define NETIO__CHUNK_LINE 1024     // most bytes of the line with the size and its extensions
#define NETIO__CHUNK_TRAILERS 8192 // most bytes of the trailers and their empty line

NETIO_API netio_framing netio_framing_chunked(size_t max)
{
    return netio__framing(NETIO_FORMAT_CHUNKED, max);
}

// White space may stand around what follows it, never before the line's end.
static netio__chunk_state netio__chunk_after(char c)
{
    if (c == ' ' || c == '\t') return NETIO__CHUNK_BLANK;
    return c == ';' ? NETIO__CHUNK_NAME_BEGIN : c == '\r' ? NETIO__CHUNK_CR : NETIO__CHUNK_BAD;
}

static netio__chunk_state netio__chunk_step(netio__chunk_state state, char c)
{
    bool blank = c == ' ' || c == '\t', token = netio__http_token_char(c);
    bool hex = netio__hex_digit(c) >= 0;
    switch (state) {
    case NETIO__CHUNK_BEGIN: return hex ? NETIO__CHUNK_SIZE : NETIO__CHUNK_BAD;
    case NETIO__CHUNK_SIZE: return hex ? state : netio__chunk_after(c);
    case NETIO__CHUNK_BLANK: return c == '\r' ? NETIO__CHUNK_BAD : netio__chunk_after(c);
    case NETIO__CHUNK_NAME_BEGIN:
        return blank ? state : token ? NETIO__CHUNK_NAME : NETIO__CHUNK_BAD;
    case NETIO__CHUNK_NAME:
        if (blank) return NETIO__CHUNK_NAME_BLANK;
        return token ? state : c == '=' ? NETIO__CHUNK_VALUE_BEGIN : netio__chunk_after(c);
    case NETIO__CHUNK_NAME_BLANK:
        if (blank) return state;
        return c == '='   ? NETIO__CHUNK_VALUE_BEGIN
               : c == ';' ? NETIO__CHUNK_NAME_BEGIN
                          : NETIO__CHUNK_BAD;
    case NETIO__CHUNK_VALUE_BEGIN:
        if (blank) return state;
        return c == '"' ? NETIO__CHUNK_QUOTED : token ? NETIO__CHUNK_VALUE : NETIO__CHUNK_BAD;
    case NETIO__CHUNK_VALUE: return token ? state : netio__chunk_after(c);
    case NETIO__CHUNK_QUOTED:
        if (c == '"') return NETIO__CHUNK_QUOTE_END;
        if (c == '\\') return NETIO__CHUNK_ESCAPE;
        return netio__http_text_char(c) ? state : NETIO__CHUNK_BAD;
    case NETIO__CHUNK_ESCAPE:
        return netio__http_text_char(c) ? NETIO__CHUNK_QUOTED : NETIO__CHUNK_BAD;
    case NETIO__CHUNK_QUOTE_END: return netio__chunk_after(c);
    default: return c == '\n' ? NETIO__CHUNK_DONE : NETIO__CHUNK_BAD; // CR
    }
}

// The line of the size: state[0] is where it stands, mark the size, state[1] the line's length once
// it is whole. Returns 1; 0: needs more.
static int netio__chunk_line(netio_decoder *d, const uint8_t *p, size_t len)
{
    size_t end = len < NETIO__CHUNK_LINE ? len : NETIO__CHUNK_LINE;
    while (d->scan < end && d->state[0] != NETIO__CHUNK_DONE) {
        char c = (char)p[d->scan++];
        netio__chunk_state state = netio__chunk_step((netio__chunk_state)d->state[0], c);
        if (state == NETIO__CHUNK_BAD) return NETIO_EPROTO;
        d->state[0] = (uint32_t)state;
        if (state != NETIO__CHUNK_SIZE) continue;
        if (d->mark >> 60) return NETIO_EPROTO; // no 64 bits hold it
        d->mark = d->mark << 4 | (uint64_t)netio__hex_digit(c);
    }
    if (d->state[0] != NETIO__CHUNK_DONE)
        return len < NETIO__CHUNK_LINE ? (int)netio__frame_wait(d, NETIO__CHUNK_LINE, '\n')
                                       : netio__frame_over(d, 0);
    d->state[1] = (uint32_t)d->scan;
    return d->mark > d->framing.max ? netio__frame_over(d, d->mark) : 1;
}

// Behind the last chunk, of size 0: fields up to an empty line. state[2] is the scanner's.
static ptrdiff_t netio__chunk_trailers(netio_decoder *d, const uint8_t *p, size_t len,
                                       netio_frame *out)
{
    size_t begin = d->state[1], limit = begin + NETIO__CHUNK_TRAILERS;
    int r = netio__http_scan(&d->scan, &d->state[2], p, len < limit ? len : limit);
    if (r < 0) return r;
    if (r == 0) return len < limit ? netio__frame_wait(d, limit, '\n') : netio__frame_over(d, 0);
    out->header = p + begin;
    out->header_len = d->scan - begin - 2;
    if (!netio__http_fields_ok((const char *)out->header, out->header_len)) return NETIO_EPROTO;
    out->data = out->header + out->header_len;
    return (ptrdiff_t)d->scan;
}

static ptrdiff_t netio__chunked_next(netio_decoder *d, const uint8_t *p, size_t len,
                                     netio_frame *out)
{
    int r = d->state[0] == NETIO__CHUNK_DONE ? 1 : netio__chunk_line(d, p, len);
    size_t begin = d->state[1], size = (size_t)d->mark;
    ptrdiff_t used = (ptrdiff_t)(begin + size + 2);
    if (r <= 0) return r;
    if (size == 0) {
        used = netio__chunk_trailers(d, p, len, out);
    } else {
        if (len > begin + size && p[begin + size] != '\r') return NETIO_EPROTO;
        if (len < (size_t)used) return netio__frame_wait(d, (size_t)used, -1);
        if (p[used - 1] != '\n') return NETIO_EPROTO;
        out->data = p + begin;
        out->len = size;
    }
    if (used <= 0) return used;
    memset(d->state, 0, sizeof d->state);
    d->state[3] = size == 0; // the body is whole
    d->mark = 0;
    return used;
}

static ptrdiff_t netio__chunked_end(netio_decoder *d, const uint8_t *p, size_t len,
                                    netio_frame *out)
{
    (void)p, (void)out;
    return len == 0 && d->state[3] ? NETIO_EOF : NETIO_ETRUNCATED;
}

// An empty piece writes nothing, so that a loop over pieces cannot end the body early: the end is a
// frame without data, or with a header (as the decoder hands it out).
static int netio__chunked_encode(netio_envelope *out, const netio_framing *f,
                                 const netio_frame *frame)
{
    char *head = (char *)out->head;
    size_t n = 0;
    (void)f;
    out->head_len = out->tail_len = 0;
    if (frame->len == 0 && frame->data && !frame->header) return 0;
    if (frame->header_len > sizeof out->head - 6) return NETIO_EMSGSIZE;
    if (frame->header_len &&
        (frame->len || !netio__http_fields_ok((const char *)frame->header, frame->header_len)))
        return NETIO_EINVAL;
    for (int shift = 8 * (int)sizeof frame->len - 4; shift >= 0; shift -= 4)
        if (frame->len >> shift || shift == 0)
            head[n++] = "0123456789abcdef"[frame->len >> shift & 15];
    head[n++] = '\r';
    head[n++] = '\n';
    if (frame->header_len) memcpy(head + n, frame->header, frame->header_len);
    out->head_len = n + frame->header_len;
    out->tail_len = 2;
    out->tail[0] = '\r';
    out->tail[1] = '\n';
    return 0;
}
#endif // NETIO_NO_CHUNKED

#ifndef NETIO_NO_HTTP
static bool netio__http_is_visible(const char *p, size_t len) // printable ASCII without spaces
{
    for (size_t i = 0; i < len; i++)
        if (p[i] <= 0x20 || p[i] >= 0x7F) return false;
    return len > 0;
}

static char netio__http_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

static bool netio__http_equal(netio_buf a, const char *text) // case aside
{
    const char *p = (const char *)a.data;
    size_t i = 0;
    while (i < a.len && text[i] && netio__http_lower(p[i]) == netio__http_lower(text[i])) i++;
    return i == a.len && text[i] == 0;
}

// --- the start line ----------------------------------------------------------------------------

static int netio__http_minor(const char *p) // of the 8 bytes "HTTP/1.x"; -1: they are not
{
    return memcmp(p, "HTTP/1.", 7) == 0 && netio__is_digit(p[7]) ? p[7] - '0' : -1;
}

// RFC 9112 section 4. The space before an absent reason is left out by many, and means nothing.
static bool netio__http_status_line(netio_http_head *h, const char *p, size_t len)
{
    uint32_t status;
    if (len < 12 || (h->minor = netio__http_minor(p)) < 0 || p[8] != ' ') return false;
    if (!netio__parse_number(&status, p + 9, 3, 599) || status < 100) return false;
    if (len > 12 && p[12] != ' ') return false;
    h->status = (int)status;
    if (len > 13) h->reason = netio__http_piece(p + 13, len - 13);
    return true;
}

// "host", "host:port" or "[v6]:port": nothing in which another parser would find another host.
static bool netio__http_host_ok(netio_buf host, bool need_port)
{
    const char *p = (const char *)host.data;
    uint8_t ip[16];
    size_t n = host.len;
    while (n && netio__is_digit(p[n - 1])) n--;
    bool port = n && p[n - 1] == ':';
    n = port ? n - 1 : host.len;
    if (need_port && (!port || n == 0 || n + 1 == host.len)) return false;
    if (n && p[0] == '[') return p[n - 1] == ']' && netio__parse_ipv6(ip, p + 1, n - 2);
    for (size_t i = 0; i < n; i++) // RFC 3986 section 3.2.2, without the comma of lists
        if (netio__http_token_char(p[i]) ? strchr("#^`|", p[i]) != NULL
                                         : p[i] == 0 || !strchr("();=", p[i]))
            return false;
    return true;
}

// RFC 9112 section 3.2: a path, a whole URL, "host:port" for CONNECT, "*" for OPTIONS.
static bool netio__http_target_ok(const netio_http_head *h)
{
    const char *p = (const char *)h->target.data, *colon;
    size_t len = h->target.len;
    if (!netio__http_is_visible(p, len) || memchr(p, '#', len)) return false;
    if (netio_buf_equal(h->method, "CONNECT")) return netio__http_host_ok(h->target, true);
    if (len == 1 && *p == '*') return netio_buf_equal(h->method, "OPTIONS");
    colon = (const char *)memchr(p, ':', len);
    return *p == '/' || (colon && colon > p && p + len - colon > 3 && colon[1] == '/' &&
                         colon[2] == '/' && netio__http_is_token(p, (size_t)(colon - p)));
}

static bool netio__http_request_line(netio_http_head *h, const char *p, size_t len)
{
    const char *space = (const char *)memchr(p, ' ', len);
    size_t method = space ? (size_t)(space - p) : 0;
    if (!netio__http_is_token(p, method) || len < method + 11 || p[len - 9] != ' ') return false;
    if ((h->minor = netio__http_minor(p + len - 8)) < 0) return false;
    h->method = netio__http_piece(p, method);
    h->target = netio__http_piece(space + 1, len - method - 10);
    return netio__http_target_ok(h);
}

// --- the fields that decide --------------------------------------------------------------------

static bool netio__http_length(int64_t *out, netio_buf value)
{
    const char *p = (const char *)value.data;
    int64_t n = 0;
    for (size_t i = 0; i < value.len; i++) {
        int digit = p[i] - '0';
        if (!netio__is_digit(p[i]) || n > (INT64_MAX - digit) / 10) return false;
        n = n * 10 + digit;
    }
    *out = n;
    return value.len > 0;
}

// RFC 9112 sections 3.2 and 6: where that lets a recipient choose, the message is refused.
static bool netio__http_decide(netio_http_head *h)
{
    size_t hosts = 0;
    for (size_t i = 0; i < h->field_count; i++) {
        netio_buf name = h->names[i], value = h->values[i];
        if (netio__http_equal(name, "content-length")) {
            if (h->content_length >= 0 || !netio__http_length(&h->content_length, value))
                return false;
        } else if (netio__http_equal(name, "transfer-encoding")) {
            if (h->chunked || h->minor == 0 || !netio__http_equal(value, "chunked")) return false;
            h->chunked = true;
        } else if (netio__http_equal(name, "host")) {
            if (hosts++ || !netio__http_host_ok(value, false)) return false;
        }
    }
    if (h->chunked && (h->content_length >= 0 || h->status == 204)) return false;
    if (h->chunked && h->status >= 100 && h->status < 200) return false;
    if (h->status == 0 && h->minor > 0 && hosts == 0) return false;
    h->keep_alive = h->minor > 0 || netio_http_field_has(h, "connection", "keep-alive");
    if (netio_http_field_has(h, "connection", "close")) h->keep_alive = false;
    h->upgrade_websocket = h->minor > 0 && netio_http_field_has(h, "upgrade", "websocket") &&
                           netio_http_field_has(h, "connection", "upgrade") &&
                           (h->status == 101 || netio_buf_equal(h->method, "GET"));
    return true;
}

NETIO_API int netio_http_parse(netio_http_head *out, const void *data, size_t len)
{
    const char *p = (const char *)data;
    netio_buf line;
    size_t at = 0;
    memset(out, 0, offsetof(netio_http_head, names));
    out->content_length = -1;
    if (!p || !netio__http_line(&line, p, len, &at)) return NETIO_EPROTO;
    bool response = line.len >= 5 && memcmp(line.data, "HTTP/", 5) == 0; // no method has a slash
    if (!(response ? netio__http_status_line : netio__http_request_line)(out, p, line.len))
        return NETIO_EPROTO;
    while (at < len) {
        size_t n = out->field_count;
        if (!netio__http_line(&line, p, len, &at)) return NETIO_EPROTO;
        if (line.len == 0) break;
        if (n == NETIO_HTTP_FIELDS) return NETIO_EMSGSIZE;
        if (!netio__http_field_line(&out->names[n], &out->values[n], (const char *)line.data,
                                    line.len))
            return NETIO_EPROTO;
        out->field_count++;
    }
    return at == len && netio__http_decide(out) ? 0 : NETIO_EPROTO;
}

// --- fields ------------------------------------------------------------------------------------

static size_t netio__http_find(netio_buf *out, const netio_http_head *h, const char *name)
{
    size_t found = 0;
    memset(out, 0, sizeof *out);
    for (size_t i = h->field_count; i-- > 0;) {
        if (!netio__http_equal(h->names[i], name)) continue;
        *out = h->values[i];
        found++;
    }
    return found;
}

NETIO_API netio_buf netio_http_field(const netio_http_head *head, const char *name)
{
    netio_buf value;
    netio__http_find(&value, head, name);
    return value;
}

NETIO_API bool netio_buf_equal(netio_buf a, const char *text)
{
    return a.data && a.len == strlen(text) && memcmp(a.data, text, a.len) == 0;
}

// The next member of a list such as "keep-alive, Upgrade"; empty ones are passed over.
static bool netio__http_next_member(netio_buf *rest, netio_buf *member)
{
    while (rest->len) {
        const char *p = (const char *)rest->data, *comma = (const char *)memchr(p, ',', rest->len);
        size_t n = comma ? (size_t)(comma - p) : rest->len;
        *member = netio__http_trim(p, n);
        n += comma != NULL;
        *rest = netio__http_piece(p + n, rest->len - n);
        if (member->len) return true;
    }
    return false;
}

static bool netio__http_list_has(const netio_http_head *h, const char *name, const char *member,
                                 bool (*equal)(netio_buf a, const char *text))
{
    for (size_t i = 0; i < h->field_count; i++) {
        netio_buf rest = h->values[i], found;
        if (!netio__http_equal(h->names[i], name)) continue;
        while (netio__http_next_member(&rest, &found))
            if (equal(found, member)) return true;
    }
    return false;
}

NETIO_API bool netio_http_field_has(const netio_http_head *head, const char *name,
                                    const char *member)
{
    return netio__http_list_has(head, name, member, netio__http_equal);
}

NETIO_API ptrdiff_t netio_http_add(char *buf, size_t cap, size_t len, const char *name,
                                   const char *value)
{
    size_t name_len = strlen(name), value_len = strlen(value), at = len - 2;
    if (len < 4 || memcmp(buf + len - 4, "\r\n\r\n", 4) != 0) return NETIO_EINVAL;
    if (!netio__http_is_token(name, name_len) || !netio__http_is_text(value, value_len))
        return NETIO_EINVAL;
    if (cap <= len || cap - len < name_len + value_len + 5) return NETIO_ENOSPC;
    at = netio__text(buf, cap, at, name, name_len);
    at = netio__text(buf, cap, at, ": ", 2);
    at = netio__text(buf, cap, at, value, value_len);
    return (ptrdiff_t)netio__text(buf, cap, at, "\r\n\r\n", 4);
}

// --- the codec ---------------------------------------------------------------------------------

NETIO_API netio_framing netio_framing_http_head(size_t max)
{
    return netio__framing(NETIO_FORMAT_HTTP_HEAD, max ? max : 4096);
}

// Empty lines before a head are skipped: clients of old sent one behind a body (RFC 9112 section
// 2.2). state[0] is the scanner's.
static ptrdiff_t netio__head_next(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    size_t max = d->framing.max;
    if (p[0] == '\r' && len == 1) return netio__frame_wait(d, 2, -1);
    if (p[0] == '\r') return p[1] == '\n' ? 2 : (ptrdiff_t)NETIO_EPROTO;
    int r = netio__http_scan(&d->scan, &d->state[0], p, len < max ? len : max);
    if (r < 0) return r;
    if (r == 0)
        return len < max ? netio__frame_wait(d, max, '\n')
                         : netio__frame_over(d, (uint64_t)max + 1);
    out->data = p;
    out->len = d->scan;
    return (ptrdiff_t)d->scan;
}

// --- SHA-1 and base64 --------------------------------------------------------------------------

static uint32_t netio__sha1_rotate(uint32_t x, unsigned n) { return x << n | x >> (32 - n); }

static void netio__sha1_block(uint32_t h[5], const uint8_t *p)
{
    static const uint32_t k[4] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (size_t i = 0; i < 80; i++)
        w[i] = i < 16 ? (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
                            (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3]
                      : netio__sha1_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (size_t i = 0; i < 80; i++) {
        uint32_t f = i < 20              ? (b & c) | (~b & d)
                     : i >= 40 && i < 60 ? (b & c) | (b & d) | (c & d)
                                         : b ^ c ^ d;
        uint32_t next = netio__sha1_rotate(a, 5) + f + e + k[i / 20] + w[i];
        e = d;
        d = c;
        c = netio__sha1_rotate(b, 30);
        b = a;
        a = next;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

NETIO_API void netio_sha1(uint8_t out[20], const void *data, size_t len)
{
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    const uint8_t *p = (const uint8_t *)data;
    uint8_t last[128] = {0};
    size_t rest = len % 64, end = rest < 56 ? 64 : 128;
    for (size_t at = 0; at + 64 <= len; at += 64) netio__sha1_block(h, p + at);
    if (rest) memcpy(last, p + len - rest, rest);
    last[rest] = 0x80;
    for (size_t i = 0; i < 8; i++) last[end - 1 - i] = (uint8_t)((uint64_t)len * 8 >> 8 * i);
    for (size_t at = 0; at < end; at += 64) netio__sha1_block(h, last + at);
    for (size_t i = 0; i < 20; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static const char netio__base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

NETIO_API ptrdiff_t netio_base64_encode(char *buf, size_t cap, const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    size_t at = 0;
    if (len / 3 >= (size_t)PTRDIFF_MAX / 4 || cap <= (len + 2) / 3 * 4) return NETIO_ENOSPC;
    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t bits = (uint32_t)p[i] << 16 | (uint32_t)(n > 1 ? p[i + 1] : 0) << 8 |
                        (uint32_t)(n > 2 ? p[i + 2] : 0);
        for (size_t k = 0; k < 4; k++)
            buf[at++] = k > n ? '=' : netio__base64_digits[bits >> (18 - 6 * k) & 63];
    }
    buf[at] = 0;
    return (ptrdiff_t)at;
}

static int netio__base64_value(char c)
{
    const char *digit = c ? strchr(netio__base64_digits, c) : NULL;
    return digit ? (int)(digit - netio__base64_digits) : -1;
}

NETIO_API ptrdiff_t netio_base64_decode(void *buf, size_t cap, const char *text, size_t len)
{
    uint8_t *out = (uint8_t *)buf;
    size_t pad = 0, at = 0;
    uint32_t bits = 0;
    while (pad < 2 && pad < len && text[len - 1 - pad] == '=') pad++;
    if (len % 4) return NETIO_EPROTO;
    for (int write = 0; write < 2; write++) { // judged whole before a byte is written
        for (size_t i = 0; i < len - pad; i++) {
            int value = netio__base64_value(text[i]);
            if (value < 0) return NETIO_EPROTO;
            bits = bits << 6 | (uint32_t)value;
            if (write && i % 4) out[at++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
        }
        if (pad && (bits & (pad == 1 ? 3 : 15))) return NETIO_EPROTO; // bits that nothing carries
        if (cap < len / 4 * 3 - pad) return NETIO_ENOSPC;
    }
    return (ptrdiff_t)at;
}
#endif // NETIO_NO_HTTP

#ifndef NETIO_NO_WEBSOCKET
//================================================================================================
// >>websocket.c
//
// A frame that lies whole in the input and is not masked is handed out where it lies. Others are
// unmasked, in one pass, into the decoder's memory as they arrive, so that a message in progress is
// there once, and its text is judged byte by byte.
//
// state[0]: opcode of the message in progress (0: none), INSIDE a data frame, its FIN, and from bit
// 8 on the UTF-8 state; state[1]: the key; state[2], state[3]: bytes of the frame still to come;
// mark: where the message began, or with `fragments` the frame.
//================================================================================================

enum { NETIO__WS_OPCODE = 15, NETIO__WS_INSIDE = 16, NETIO__WS_FIN = 32, NETIO__WS_LATER = 64 };

typedef struct netio__ws_header {
    size_t len;
    uint64_t payload;
    unsigned opcode;
    bool fin;
    uint8_t key[4]; // zeros if it is not masked
} netio__ws_header;

NETIO_API netio_framing netio_framing_websocket(bool client, size_t max)
{
    netio_framing f = netio__framing(NETIO_FORMAT_WEBSOCKET, max);
    f.masked = client;
    return f;
}

// Four words at a time, by name: gcc -O2 makes the widest loads out of these, and not out of an
// array. The key is left turned to where the next piece goes on. `to` may lie at or below `from`.
static void netio__ws_mask(uint8_t *to, const uint8_t *from, size_t len, uint8_t key[4])
{
    uint64_t mask, a, b, c, d;
    uint8_t turned[4];
    size_t at = 0;
    memcpy(&mask, key, 4);
    memcpy((uint8_t *)&mask + 4, key, 4);
    for (; len - at >= 32; at += 32) {
        memcpy(&a, from + at, 8);
        memcpy(&b, from + at + 8, 8);
        memcpy(&c, from + at + 16, 8);
        memcpy(&d, from + at + 24, 8);
        a ^= mask, b ^= mask, c ^= mask, d ^= mask;
        memcpy(to + at, &a, 8);
        memcpy(to + at + 8, &b, 8);
        memcpy(to + at + 16, &c, 8);
        memcpy(to + at + 24, &d, 8);
    }
    for (; len - at >= 8; at += 8) {
        memcpy(&a, from + at, 8);
        a ^= mask;
        memcpy(to + at, &a, 8);
    }
    for (; at < len; at++) to[at] = (uint8_t)(from[at] ^ key[at & 3]);
    for (size_t i = 0; i < 4; i++) turned[i] = key[(len + i) & 3];
    memcpy(key, turned, 4);
}

// --- closing -----------------------------------------------------------------------------------

// What may stand in a close frame: RFC 6455 section 7.4 and the codes registered since.
static bool netio__ws_code_ok(unsigned code)
{
    return (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) ||
           (code >= 3000 && code <= 4999);
}

// The first `len` bytes of a close frame's payload; `whole`: there are no more.
static int netio__ws_close_judge(const uint8_t *p, size_t len, bool whole)
{
    uint32_t state = 0;
    if (len < 2) return len == 1 && whole ? (int)NETIO_EPROTO : 0;
    if (!netio__ws_code_ok((unsigned)p[0] << 8 | p[1])) return NETIO_EPROTO;
    int err = netio_utf8_check(&state, p + 2, len - 2, NULL);
    return err == 0 && whole && state ? (int)NETIO_EILSEQ : err;
}

NETIO_API ptrdiff_t netio_ws_close_write(void *buf, size_t cap, int code, const char *reason)
{
    uint8_t plain[126];
    size_t len = reason ? strlen(reason) : 0, n = code ? 2 + len : 0;
    if (code < 0 || code > 4999 || (code == 0 && len)) return NETIO_EINVAL;
    if (n >= sizeof plain) return NETIO_EMSGSIZE;
    plain[0] = (uint8_t)(code >> 8);
    plain[1] = (uint8_t)(code & 255);
    if (len) netio__text((char *)plain, sizeof plain, 2, reason, len);
    int err = netio__ws_close_judge(plain, n, true);
    if (err < 0) return err == NETIO_EPROTO ? NETIO_EINVAL : err;
    if (cap < n) return NETIO_ENOSPC;
    if (n) memcpy(buf, plain, n);
    return (ptrdiff_t)n;
}

NETIO_API int netio_ws_close_code(const void *payload, size_t len)
{
    const uint8_t *p = (const uint8_t *)payload;
    return len < 2 ? 1005 : p[0] << 8 | p[1];
}

NETIO_API int netio_ws_close_code_for(int err)
{
    switch (err) {
    case 0: return 1000;
    case NETIO_EPROTO: return 1002;
    case NETIO_EILSEQ: return 1007;
    case NETIO_EMSGSIZE: return 1009;
    default: return 1011;
    }
}

// --- decoding ----------------------------------------------------------------------------------

static bool netio__ws_opcode_ok(unsigned opcode, bool fin, unsigned message)
{
    if (opcode >= NETIO_WS_CLOSE) return opcode <= NETIO_WS_PONG && fin;
    return opcode <= NETIO_WS_BINARY && (opcode == 0) == (message != 0);
}

// The length behind the second byte, in as few bytes as it fits (RFC 6455 section 5.2). Returns the
// bytes it takes; 0: there are not so many yet.
static ptrdiff_t netio__ws_length(uint64_t *out, const uint8_t *p, size_t len)
{
    size_t code = p[1] & 127u, width = code == 126 ? 2 : code == 127 ? 8 : 0;
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) {
        if (2 + i == len) return 0;
        value = value << 8 | p[2 + i];
        if (width == 8 && ((i == 0 && value > 127) || (i == 5 && value == 0))) return NETIO_EPROTO;
    }
    if (width == 2 && value < 126) return NETIO_EPROTO;
    *out = width ? value : code;
    return (ptrdiff_t)(2 + width);
}

// Returns the header's length; 0: it is not whole. What is wrong is wrong at its byte.
static ptrdiff_t netio__ws_header_read(netio__ws_header *h, netio_decoder *d, const uint8_t *p,
                                       size_t len)
{
    bool masked = !d->framing.masked; // a client masks, a server does not (RFC 6455 section 5.1)
    h->opcode = p[0] & 15u;
    h->fin = p[0] >> 7;
    memset(h->key, 0, 4);
    if ((p[0] & 0x70) || !netio__ws_opcode_ok(h->opcode, h->fin, d->state[0] & NETIO__WS_OPCODE))
        return NETIO_EPROTO;
    if (len < 2) return netio__frame_wait(d, 2, -1);
    if (p[1] >> 7 != masked || (h->opcode >= NETIO_WS_CLOSE && (p[1] & 127) > 125))
        return NETIO_EPROTO;
    ptrdiff_t n = netio__ws_length(&h->payload, p, len);
    if (n == 0) return netio__frame_wait(d, len + 1, -1);
    if (n < 0 || !masked) return n;
    if (len < (size_t)n + 4) return netio__frame_wait(d, (size_t)n + 4, -1);
    memcpy(h->key, p + n, 4);
    return n + 4;
}

// A control frame, which may come between the fragments of a message: gathered bytes stay. A bad
// close frame shows at its byte.
static ptrdiff_t netio__ws_control(netio_decoder *d, netio__ws_header *h, const uint8_t *p,
                                   size_t len, netio_frame *out)
{
    uint8_t plain[125], *room;
    size_t size = (size_t)h->payload, have = len - h->len < size ? len - h->len : size;
    netio__ws_mask(plain, p + h->len, have, h->key);
    int err = h->opcode == NETIO_WS_CLOSE ? netio__ws_close_judge(plain, have, have == size) : 0;
    if (h->opcode == NETIO_WS_CLOSE && size == 1) err = NETIO_EPROTO;
    if (err < 0) return err;
    if (have < size) return netio__frame_wait(d, h->len + size, -1);
    out->data = p + h->len;
    if (!d->framing.masked && size) {
        if (!(room = netio__frame_room(d, size))) return d->err;
        memcpy(room, plain, size);
        out->data = room;
    }
    out->len = size;
    out->type = h->opcode;
    return (ptrdiff_t)(h->len + size);
}

// Bytes of a data frame's payload: all that is left of it, or what has come.
static ptrdiff_t netio__ws_payload(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    uint64_t left = (uint64_t)d->state[2] << 32 | d->state[3];
    unsigned flags = d->state[0] & 255u, opcode = flags & NETIO__WS_OPCODE;
    uint32_t utf8 = d->state[0] >> 8;
    size_t n = (uint64_t)len < left ? len : (size_t)left;
    bool whole = n == left, fin = (flags & NETIO__WS_FIN) != 0, give = fin || d->framing.fragments;
    const uint8_t *plain = p;
    if (n && (!d->framing.masked || d->kept || !whole || !give)) {
        uint8_t *room = netio__frame_room(d, n);
        if (!room) return d->err;
        if (d->framing.masked) memmove(room, p, n);
        else netio__ws_mask(room, p, n, (uint8_t *)&d->state[1]);
        d->kept += n;
        plain = room;
    }
    bool good = opcode != NETIO_WS_TEXT || netio_utf8_check(&utf8, plain, n, NULL) == 0;
    if (!good || (whole && fin && utf8)) {
        d->offset = d->mark;
        return NETIO_EILSEQ;
    }
    left -= n;
    d->state[2] = (uint32_t)(left >> 32);
    d->state[3] = (uint32_t)left;
    if (whole) flags &= ~(unsigned)NETIO__WS_INSIDE;
    if (whole && give) {
        out->data = d->kept ? d->buf : plain;
        out->len = d->kept ? d->kept : n;
        out->offset = d->mark;
        out->type = opcode;
        out->more = !fin;
        out->continues = (flags & NETIO__WS_LATER) != 0;
        d->kept = 0;
        flags = fin ? 0 : flags | NETIO__WS_LATER;
    }
    d->state[0] = flags | utf8 << 8;
    return (ptrdiff_t)n;
}

static ptrdiff_t netio__ws_next(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    netio__ws_header h;
    uint32_t before[4];
    if (d->state[0] & NETIO__WS_INSIDE) return netio__ws_payload(d, p, len, out);
    ptrdiff_t n = netio__ws_header_read(&h, d, p, len), r;
    if (n <= 0) return n;
    h.len = (size_t)n;
    if (h.opcode >= NETIO_WS_CLOSE) return netio__ws_control(d, &h, p, len, out);
    if (h.payload > d->framing.max - d->kept) return netio__frame_over(d, h.payload + d->kept);
    memcpy(before, d->state, sizeof before);
    uint64_t mark = d->mark;
    if (h.opcode) d->state[0] = h.opcode;
    if (h.opcode || d->framing.fragments) d->mark = d->offset;
    d->state[0] |= (unsigned)NETIO__WS_INSIDE | (h.fin ? (unsigned)NETIO__WS_FIN : 0);
    memcpy(&d->state[1], h.key, 4);
    d->state[2] = (uint32_t)(h.payload >> 32);
    d->state[3] = (uint32_t)h.payload;
    if (h.len == len && h.payload) return n; // the payload has not begun
    r = netio__ws_payload(d, p + h.len, len - h.len, out);
    if (r >= 0) return n + r;
    memcpy(d->state, before, sizeof before); // no memory: asked again with the same bytes
    d->mark = mark;
    return r;
}

static ptrdiff_t netio__ws_end(netio_decoder *d, const uint8_t *p, size_t len, netio_frame *out)
{
    (void)p, (void)out;
    return len || d->state[0] ? NETIO_ETRUNCATED : NETIO_EOF;
}

// --- encoding ----------------------------------------------------------------------------------

// Returns the header's length without a key; NETIO_EINVAL, NETIO_EMSGSIZE.
static ptrdiff_t netio__ws_head(uint8_t *head, const netio_framing *f, const netio_frame *frame)
{
    unsigned type = frame->type ? frame->type : f->type ? f->type : (unsigned)NETIO_WS_BINARY;
    size_t len = frame->len, width = len < 126 ? 0 : len <= 65535 ? 2 : 8;
    if (!netio__ws_opcode_ok(type, !frame->more, 0)) return NETIO_EINVAL;
    if (type >= NETIO_WS_CLOSE && (width || frame->continues))
        return width ? NETIO_EMSGSIZE : NETIO_EINVAL;
    if (type == NETIO_WS_CLOSE && netio__ws_close_judge(frame->data, len, true) < 0)
        return NETIO_EINVAL;
    head[0] = (uint8_t)((frame->more ? 0 : 0x80u) | (frame->continues ? 0 : type));
    head[1] = (uint8_t)((f->masked ? 0x80u : 0) | (width == 0 ? len : width == 2 ? 126 : 127));
    netio__frame_put_uint(head + 2, width, false, width ? len : 0);
    return (ptrdiff_t)(2 + width);
}

static int netio__ws_encode(netio_envelope *out, const netio_framing *f, const netio_frame *frame)
{
    ptrdiff_t n = netio__ws_head(out->head, f, frame);
    if (n < 0) return (int)n;
    if (f->masked) return NETIO_ENOTSUP;
    out->head_len = (size_t)n;
    out->tail_len = 0;
    return 0;
}

// The key is 4 bytes in frame->header (a user of many frames asks the OS for many keys at once), or
// asked of the OS here.
static ptrdiff_t netio__ws_into(uint8_t *buf, size_t cap, const netio_framing *f,
                                const netio_frame *frame)
{
    uint8_t head[14], key[4];
    ptrdiff_t n = netio__ws_head(head, f, frame);
    if (n < 0) return n;
    if (frame->header_len && frame->header_len != 4) return NETIO_EINVAL;
    if (cap < (size_t)n + 4 || cap - (size_t)n - 4 < frame->len) return NETIO_ENOSPC;
    int err = 0;
    if (frame->header_len) memcpy(key, frame->header, 4);
    else err = netio__os_random(key, 4);
    if (err < 0) return err;
    memcpy(head + n, key, 4);
    n += 4;
    memcpy(buf, head, (size_t)n);
    netio__ws_mask(buf + n, frame->data, frame->len, key);
    return n + (ptrdiff_t)frame->len;
}

// --- handshake ---------------------------------------------------------------------------------

#ifndef NETIO_NO_HTTP
static void netio__ws_accept(char out[29], const void *key) // RFC 6455 section 4.2.2
{
    char text[61];
    uint8_t sum[20];
    memcpy(text, key, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 37);
    netio_sha1(sum, text, 60);
    netio_base64_encode(out, 29, sum, 20);
}

NETIO_API ptrdiff_t netio_ws_request(char *buf, size_t cap, const char *host, const char *target,
                                     char key[25])
{
    uint8_t random[16];
    size_t at = 0;
    if (!netio__http_host_ok(netio__http_piece(host, strlen(host)), false)) return NETIO_EINVAL;
    if (target[0] != '/' || !netio__http_is_visible(target, strlen(target)) || strchr(target, '#'))
        return NETIO_EINVAL;
    int err = netio__os_random(random, sizeof random);
    if (err < 0) return err;
    netio_base64_encode(key, 25, random, sizeof random);
    at = netio__text_z(buf, cap, at, "GET ");
    at = netio__text_z(buf, cap, at, target);
    at = netio__text_z(buf, cap, at, " HTTP/1.1\r\nHost: ");
    at = netio__text_z(buf, cap, at, host);
    at = netio__text_z(buf, cap, at,
                       "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ");
    at = netio__text_z(buf, cap, at, key);
    at = netio__text_z(buf, cap, at, "\r\n\r\n");
    return at < cap ? (ptrdiff_t)at : (ptrdiff_t)NETIO_ENOSPC;
}

NETIO_API int netio_ws_answer(char *buf, size_t cap, size_t *len, const netio_http_head *request)
{
    netio_buf key, version;
    uint8_t nonce[16];
    char accept[29];
    size_t keys = netio__http_find(&key, request, "sec-websocket-key");
    size_t versions = netio__http_find(&version, request, "sec-websocket-version"), at = 0;
    bool upgrade = request->upgrade_websocket && request->status == 0;
    bool ok = keys == 1 && request->content_length <= 0 && !request->chunked && versions <= 1 &&
              netio_base64_decode(nonce, 16, (const char *)key.data, key.len) == 16;
    if (!upgrade || (versions == 1 && !netio_buf_equal(version, "13"))) {
        at = netio__text_z(buf, cap, at,
                           "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade, close\r\nSec-WebSocket-Version: 13");
        ok = false;
    } else if (!ok || versions == 0) {
        at = netio__text_z(buf, cap, at, "HTTP/1.1 400 Bad Request\r\nConnection: close");
        ok = false;
    } else {
        netio__ws_accept(accept, key.data);
        at = netio__text_z(buf, cap, at,
                           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade\r\nSec-WebSocket-Accept: ");
        at = netio__text_z(buf, cap, at, accept);
    }
    at = netio__text_z(buf, cap, at, ok ? "\r\n\r\n" : "\r\nContent-Length: 0\r\n\r\n");
    *len = at < cap ? at : 0;
    return at >= cap ? NETIO_ENOSPC : ok ? 0 : (int)NETIO_EPROTO;
}

NETIO_API const char *netio_ws_choose(const netio_http_head *request, const char *const *mine)
{
    for (; *mine; mine++)
        if (netio__http_list_has(request, "sec-websocket-protocol", *mine, netio_buf_equal))
            return *mine;
    return NULL;
}

NETIO_API int netio_ws_check_protocol(const netio_http_head *response, const char key[25],
                                      const char *const *mine, const char **chosen)
{
    netio_buf accept, protocol, extension, upgrade;
    char want[29];
    netio__ws_accept(want, key);
    if (response->status != 101) return NETIO_ECONNREFUSED;
    if (!response->upgrade_websocket) return NETIO_EPROTO;
    if (netio__http_find(&upgrade, response, "upgrade") != 1) return NETIO_EPROTO;
    if (!netio__http_equal(upgrade, "websocket")) return NETIO_EPROTO; // no list here
    if (netio__http_find(&accept, response, "sec-websocket-accept") != 1) return NETIO_EPROTO;
    if (!netio_buf_equal(accept, want)) return NETIO_EPROTO;
    if (netio__http_find(&extension, response, "sec-websocket-extensions")) return NETIO_EPROTO;
    size_t protocols = netio__http_find(&protocol, response, "sec-websocket-protocol");
    while (*mine && !netio_buf_equal(protocol, *mine)) mine++;
    if (protocols > 1 || (protocols && !*mine)) return NETIO_EPROTO;
    *chosen = protocols ? *mine : NULL;
    return 0;
}

NETIO_API int netio_ws_check(const netio_http_head *response, const char key[25])
{
    const char *none = NULL;
    return netio_ws_check_protocol(response, key, &none, &none);
}
#endif // NETIO_NO_HTTP
#endif // NETIO_NO_WEBSOCKET

#ifndef NETIO_NO_PROXY
//================================================================================================
// >>proxy.c
//================================================================================================

#define NETIO__PROXY_LINE 107 // longest header of version 1, with its CRLF

static const uint8_t netio__proxy_signature[12] = {13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10};

// --- version 1: a line of text -----------------------------------------------------------------

// The next word; every one but the last has exactly one space behind it.
static netio_buf netio__proxy_word(const char **at, const char *end)
{
    netio_buf word;
    const char *space = (const char *)memchr(*at, ' ', (size_t)(end - *at));
    word.data = *at;
    word.len = (size_t)((space ? space : end) - *at);
    *at = space ? space + 1 : end;
    return word;
}

static bool netio__proxy_ip(uint8_t ip[16], netio_buf word, size_t ip_len)
{
    const char *text = (const char *)word.data;
    return ip_len == 4 ? netio__parse_ipv4(ip, text, word.len)
                       : netio__parse_ipv6(ip, text, word.len);
}

// "TCP4 SOURCE DESTINATION PORT PORT", or "UNKNOWN" and whatever follows it.
static int netio__proxy_line(const char *p, const char *end, netio_addr out[2])
{
    uint8_t ip[2][16];
    uint16_t port[2];
    size_t len = (size_t)(end - p), ip_len;
    if (len >= 7 && memcmp(p, "UNKNOWN", 7) == 0 && (len == 7 || p[7] == ' ')) return 0;
    if (len < 5 || (memcmp(p, "TCP4 ", 5) != 0 && memcmp(p, "TCP6 ", 5) != 0)) return NETIO_EPROTO;
    ip_len = p[3] == '4' ? 4 : 16;
    p += 5;
    for (int i = 0; i < 4; i++) {
        netio_buf word = netio__proxy_word(&p, end);
        const char *text = (const char *)word.data;
        if (i < 2 ? !netio__proxy_ip(ip[i], word, ip_len)
                  : !netio__parse_port(&port[i - 2], text, word.len))
            return NETIO_EPROTO;
        if ((text + word.len == end) != (i == 3)) return NETIO_EPROTO;
    }
    for (int i = 0; i < 2; i++) {
        netio_addr_from_ip(&out[i], ip[i], ip_len, port[i]);
        netio_addr_unmap(&out[i]);
    }
    return 0;
}

static ptrdiff_t netio__proxy_v1(const char *p, size_t len, netio_addr out[2])
{
    size_t n = len < NETIO__PROXY_LINE ? len : NETIO__PROXY_LINE;
    if (memcmp(p, "PROXY ", n < 6 ? n : 6) != 0) return NETIO_EPROTO;
    for (size_t i = 6; i < n; i++) {
        if (p[i] == '\n') return NETIO_EPROTO; // a CR was not before it
        if (p[i] != '\r') continue;
        if (i + 1 == n) break;
        if (p[i + 1] != '\n') return NETIO_EPROTO;
        int err = netio__proxy_line(p + 6, p + i, out);
        return err < 0 ? err : (ptrdiff_t)(i + 2);
    }
    return len < NETIO__PROXY_LINE ? 0 : NETIO_EPROTO;
}

// --- version 2: binary -------------------------------------------------------------------------

// Bytes of both addresses; 0: family or protocol is unspecified, and what follows is nobody's.
static size_t netio__proxy_block(const uint8_t *p)
{
    unsigned family = p[13] >> 4;
    if ((p[12] & 15) == 0 || (p[13] & 15) == 0) return 0;
    return family == 1 ? 12 : family == 2 ? 36 : family == 3 ? 216 : 0;
}

static size_t netio__proxy_length(const uint8_t *p) // of the whole header
{
    return 16 + ((size_t)p[14] << 8 | p[15]);
}

NETIO_API netio_buf netio_proxy_tlvs(const void *header, size_t len)
{
    const uint8_t *p = (const uint8_t *)header;
    netio_buf out = {NULL, 0};
    size_t block = len > 16 && p[0] == 13 ? netio__proxy_block(p) : 0;
    size_t n = block ? netio__proxy_length(p) : 0;
    if (n > 16 + block && n <= len) {
        out.data = p + 16 + block;
        out.len = n - 16 - block;
    }
    return out;
}

NETIO_API int netio_proxy_next_tlv(netio_buf *rest, int *type, netio_buf *value)
{
    const uint8_t *p = (const uint8_t *)rest->data;
    if (rest->len == 0) return 0;
    size_t len = rest->len < 3 ? SIZE_MAX : (size_t)p[1] << 8 | p[2];
    if (rest->len < 3 || len > rest->len - 3) return NETIO_EPROTO;
    *type = p[0];
    value->data = p + 3;
    value->len = len;
    rest->data = p + 3 + len;
    rest->len -= 3 + len;
    return 1;
}

// The place of the checksum in a header, and what it must be: that of the header with zeros there.
// Returns 1; 0: it has none; NETIO_EPROTO: the list is not one.
static int netio__proxy_sum(const uint8_t *p, size_t len, size_t *at, uint32_t *sum)
{
    static const uint8_t zeros[4] = {0};
    netio_buf rest = netio_proxy_tlvs(p, len), value;
    int type, r, found = 0;
    while ((r = netio_proxy_next_tlv(&rest, &type, &value)) > 0) {
        if (type == NETIO_PROXY_UNIQUE_ID && value.len > 128) return NETIO_EPROTO;
        if (type != NETIO_PROXY_CRC32C) continue;
        if (value.len != 4 || found++) return NETIO_EPROTO;
        *at = (size_t)((const uint8_t *)value.data - p);
    }
    if (r == 0 && found) {
        *sum = netio_crc32c(netio_crc32c(0, p, *at), zeros, 4);
        *sum = netio_crc32c(*sum, p + *at + 4, len - *at - 4);
    }
    return r < 0 ? r : found;
}

// A path of up to 108 bytes, with a NUL behind it if it is shorter, in front if it is abstract.
static void netio__proxy_path(netio_addr *out, const uint8_t *p)
{
    char path[109];
    size_t len = 108;
    memcpy(path, p, 108);
    path[108] = 0;
    if (path[0]) {
        len = strlen(path);
    } else {
        while (len && path[len - 1] == 0) len--;
        if (len) path[0] = '@';
    }
    // What this system has no address for stays unknown, and so do unnamed sockets.
    if (netio_addr_from_path(out, path, len) < 0) memset(out, 0, sizeof *out);
}

static void netio__proxy_addresses(const uint8_t *p, netio_addr out[2])
{
    size_t block = netio__proxy_block(p), ip_len = block == 12 ? 4 : 16;
    const uint8_t *port = p + 16 + 2 * ip_len;
    for (size_t i = 0; i < 2 && block; i++, port += 2) {
        if (block == 216) {
            netio__proxy_path(&out[i], p + 16 + 108 * i);
            continue;
        }
        netio_addr_from_ip(&out[i], p + 16 + ip_len * i, ip_len,
                           (uint16_t)(port[0] << 8 | port[1]));
        netio_addr_unmap(&out[i]);
    }
}

static ptrdiff_t netio__proxy_v2(const uint8_t *p, size_t len, netio_addr out[2])
{
    size_t n, at = 0;
    uint32_t sum = 0;
    if (memcmp(p, netio__proxy_signature, len < 12 ? len : 12) != 0) return NETIO_EPROTO;
    if (len > 12 && (p[12] & ~1) != 0x20) return NETIO_EPROTO; // version 2; LOCAL or PROXY
    // Of LOCAL nothing but the length counts.
    if (len > 13 && p[12] == 0x21 && (p[13] >> 4 > 3 || (p[13] & 15) > 2)) return NETIO_EPROTO;
    if (len < 16) return 0;
    n = netio__proxy_length(p);
    if (n < 16 + netio__proxy_block(p)) return NETIO_EPROTO;
    if (n > NETIO_PROXY_MAX) return NETIO_EMSGSIZE;
    if (len < n) return 0;
    int r = netio__proxy_sum(p, n, &at, &sum);
    if (r < 0) return r;
    if (r && netio__frame_uint(p + at, 4, false) != sum) return NETIO_EBADMSG;
    netio__proxy_addresses(p, out);
    return (ptrdiff_t)n;
}

NETIO_API ptrdiff_t netio_proxy_parse(const void *data, size_t len, netio_addr *src,
                                      netio_addr *dst)
{
    netio_addr out[2];
    memset(out, 0, sizeof out);
    if (len == 0) return 0;
    ptrdiff_t n = *(const char *)data == 'P' ? netio__proxy_v1((const char *)data, len, out)
                                             : netio__proxy_v2((const uint8_t *)data, len, out);
    if (n > 0) {
        *src = out[0];
        *dst = out[1];
    }
    return n;
}

// --- writing -----------------------------------------------------------------------------------

#if NETIO__HAS_UNIX
static void netio__proxy_put_path(uint8_t *out, const netio_addr *a)
{
    const char *path = NULL;
    size_t len = 0;
    if (netio__addr_get_unix(a, &path, &len) && len) memcpy(out, path, len < 108 ? len : 108);
}
#else
static void netio__proxy_put_path(uint8_t *out, const netio_addr *a) { (void)out, (void)a; }
#endif

// Bring two addresses to one family, without zones: a header has no place for them. Returns it; 0:
// neither IP nor Unix; NETIO_EINVAL.
static int netio__proxy_match(netio_addr out[2], const netio_addr *src, const netio_addr *dst)
{
    const netio_addr *from[2] = {src, dst};
    netio__ip ip[2];
    if (!src && !dst) return 0;
    if (!src || !dst) return NETIO_EINVAL;
    bool is_ip[2] = {netio__addr_get_ip(&ip[0], src), netio__addr_get_ip(&ip[1], dst)};
    if (is_ip[0] != is_ip[1]) return NETIO_EINVAL;
    for (int i = 0; i < 2; i++) {
        out[i] = *from[i];
        if (!is_ip[0]) continue;
        if (ip[0].family != ip[1].family) netio__ip_map(&ip[i]);
        ip[i].scope = 0;
        netio__addr_set_ip(&out[i], &ip[i]);
    }
    int family = netio_addr_family(&out[0]);
    return is_ip[0] || family == NETIO_UNIX ? family : 0;
}

static size_t netio__proxy_write_v1(char *buf, size_t cap, int family, const netio_addr a[2])
{
    char text[2][NETIO_ADDR_TEXT];
    size_t at = netio__text_z(buf, cap, 0, "PROXY ");
    if (family != NETIO_IPV4 && family != NETIO_IPV6)
        return netio__text_z(buf, cap, at, "UNKNOWN\r\n");
    at = netio__text_z(buf, cap, at, family == NETIO_IPV4 ? "TCP4" : "TCP6");
    for (int i = 0; i < 2; i++) {
        netio_addr_format_host(&a[i], text[i], sizeof text[i]);
        at = netio__text_z(buf, cap, at, " ");
        at = netio__text_z(buf, cap, at, text[i]);
    }
    for (int i = 0; i < 2; i++) {
        at = netio__text_z(buf, cap, at, " ");
        at = netio__text_uint(buf, cap, at, netio_addr_port(&a[i]), 10);
    }
    return netio__text_z(buf, cap, at, "\r\n");
}

static size_t netio__proxy_write_v2(uint8_t out[232], int family, const netio_addr a[2])
{
    uint8_t ports[4];
    memset(out, 0, 232);
    memcpy(out, netio__proxy_signature, 12);
    out[12] = family ? 0x21 : 0x20;
    out[13] = family == NETIO_IPV4 ? 0x11 : family == NETIO_IPV6 ? 0x21 : family ? 0x31 : 0;
    size_t block = netio__proxy_block(out);
    out[15] = (uint8_t)block;
    for (size_t i = 0; i < 2; i++) {
        netio_buf ip = netio_addr_ip(&a[i]);
        if (ip.len) memcpy(out + 16 + i * ip.len, ip.data, ip.len);
        else if (block) netio__proxy_put_path(out + 16 + i * 108, &a[i]);
        ports[2 * i] = (uint8_t)(netio_addr_port(&a[i]) >> 8);
        ports[2 * i + 1] = (uint8_t)(netio_addr_port(&a[i]) & 255);
    }
    if (block == 12 || block == 36) memcpy(out + 16 + block - 4, ports, 4);
    return 16 + block;
}

NETIO_API ptrdiff_t netio_proxy_write(void *buf, size_t cap, int version, const netio_addr *src,
                                      const netio_addr *dst)
{
    netio_addr a[2];
    uint8_t out[232];
    memset(a, 0, sizeof a);
    int family = netio__proxy_match(a, src, dst);
    if (family < 0 || (version != 1 && version != 2)) return NETIO_EINVAL;
    size_t n = version == 1 ? netio__proxy_write_v1((char *)out, sizeof out, family, a)
                            : netio__proxy_write_v2(out, family, a);
    if (cap < n) return NETIO_ENOSPC;
    memcpy(buf, out, n);
    return (ptrdiff_t)n;
}

NETIO_API ptrdiff_t netio_proxy_add_tlv(void *buf, size_t cap, size_t len, int type,
                                        const void *value, size_t value_len)
{
    uint8_t *p = (uint8_t *)buf;
    size_t at = 0, add = type == NETIO_PROXY_CRC32C ? 4 : value_len;
    uint32_t sum = 0;
    if (len < 16 || memcmp(p, netio__proxy_signature, 12) != 0 || !netio__proxy_block(p) ||
        netio__proxy_length(p) != len || type < 0 || type > 255)
        return NETIO_EINVAL;
    if (add > NETIO_PROXY_MAX || len + 3 + add > NETIO_PROXY_MAX) return NETIO_EMSGSIZE;
    if (cap < len + 3 + add) return NETIO_ENOSPC;
    p[len] = (uint8_t)type;
    netio__frame_put_uint(p + len + 1, 2, false, add);
    if (type == NETIO_PROXY_CRC32C) memset(p + len + 3, 0, 4);
    else if (add) memcpy(p + len + 3, value, add);
    len += 3 + add;
    netio__frame_put_uint(p + 14, 2, false, len - 16);
    if (netio__proxy_sum(p, len, &at, &sum) > 0) netio__frame_put_uint(p + at, 4, false, sum);
    return (ptrdiff_t)len;
}
#endif // NETIO_NO_PROXY

#ifndef NETIO_NO_SOCKS
//================================================================================================
// >>tunnel.c
//
// All that may be sent is made at the start, in up to three pieces one behind the other; an answer
// lets the next piece go. Answers are read byte by byte, so that not one too many is taken.
//
//   SOCKS5:  METHOD --user wanted--> USER --> REPLY --> OPEN        CONNECT:  HEAD --> OPEN
//            METHOD --none--> REPLY
//================================================================================================

enum {
    NETIO__TUNNEL_METHOD,
    NETIO__TUNNEL_USER,
    NETIO__TUNNEL_REPLY,
    NETIO__TUNNEL_HEAD,
    NETIO__TUNNEL_OPEN
};

typedef struct netio__tunnel_user { // "" and 0 if there is none
    char name[256], password[256];
    size_t name_len, password_len;
} netio__tunnel_user;

// Let piece `i` go.
static void netio__tunnel_go(netio_tunnel *t, size_t i)
{
    t->out_at = i ? t->out_len[i - 1] : 0;
    t->out_end = t->out_len[i];
}

static void netio__tunnel_put(netio_tunnel *t, const void *data, size_t len)
{
    NETIO_ASSERT(len <= sizeof t->out - t->out_end);
    memcpy(t->out + t->out_end, data, len);
    t->out_end += len;
}

static void netio__tunnel_put_byte(netio_tunnel *t, size_t value)
{
    uint8_t c = (uint8_t)value;
    netio__tunnel_put(t, &c, 1);
}

// "us%65r" up to its end. Returns the length; NETIO_EINVAL, NETIO_ENAMETOOLONG.
static ptrdiff_t netio__tunnel_decode(char out[256], const char *p, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++, n++) {
        if (n == 255) return NETIO_ENAMETOOLONG;
        out[n] = p[i];
        if (p[i] != '%') continue;
        int high = len - i > 2 ? netio__hex_digit(p[i + 1]) : -1;
        int low = len - i > 2 ? netio__hex_digit(p[i + 2]) : -1;
        if (high < 0 || low < 0) return NETIO_EINVAL;
        out[n] = (char)(high * 16 + low);
        i += 2;
    }
    return (ptrdiff_t)n;
}

// "user:password@" at the front of *text, which moves behind it.
static int netio__tunnel_read_user(netio__tunnel_user *u, const char **text)
{
    const char *p = *text, *end = strrchr(p, '@');
    memset(u, 0, sizeof *u);
    if (!end) return 0;
    *text = end + 1;
    const char *colon = (const char *)memchr(p, ':', (size_t)(end - p));
    if (!colon) return NETIO_EINVAL;
    ptrdiff_t name = netio__tunnel_decode(u->name, p, (size_t)(colon - p));
    ptrdiff_t password = netio__tunnel_decode(u->password, colon + 1, (size_t)(end - colon) - 1);
    if (name <= 0 || password < 0)
        return name < 0 ? (int)name : password < 0 ? (int)password : (int)NETIO_EINVAL;
    u->name_len = (size_t)name;
    u->password_len = (size_t)password;
    return 0;
}

// --- SOCKS5: RFC 1928, RFC 1929 ----------------------------------------------------------------

static void netio__tunnel_socks(netio_tunnel *t, const netio__tunnel_user *u, netio_buf ip,
                                netio_buf host, uint16_t port)
{
    bool user = u->name_len > 0;
    netio__tunnel_put(t, "\5\2\0\2", user ? 4 : 0);
    netio__tunnel_put(t, "\5\1\0", user ? 0 : 3);
    t->out_len[0] = t->out_end;
    netio__tunnel_put_byte(t, 1);
    netio__tunnel_put_byte(t, u->name_len);
    netio__tunnel_put(t, u->name, u->name_len);
    netio__tunnel_put_byte(t, u->password_len);
    netio__tunnel_put(t, u->password, u->password_len);
    t->out_len[1] = t->out_end;
    t->user = user;
    netio__tunnel_put(t, "\5\1\0", 3);
    netio__tunnel_put_byte(t, ip.len == 4 ? 1 : ip.len ? 4 : 3);
    if (ip.len == 0) netio__tunnel_put_byte(t, host.len);
    netio__tunnel_put(t, ip.len ? ip.data : host.data, ip.len ? ip.len : host.len);
    netio__tunnel_put_byte(t, port >> 8);
    netio__tunnel_put_byte(t, port & 255u);
    t->out_len[2] = t->out_end;
}

static int netio__tunnel_refusal(uint8_t reply) // RFC 1928 section 6
{
    static const int errors[9] = {0,
                                  NETIO_EIO,
                                  NETIO_EACCES,
                                  NETIO_ENETUNREACH,
                                  NETIO_EHOSTUNREACH,
                                  NETIO_ECONNREFUSED,
                                  NETIO_ETIMEDOUT,
                                  NETIO_ENOTSUP,
                                  NETIO_EAFNOSUPPORT};
    return reply < 9 ? errors[reply] : (int)NETIO_EPROTO;
}

static int netio__tunnel_method(netio_tunnel *t)
{
    if (t->in[0] != 5) return NETIO_EPROTO;
    if (t->in_len < 2) return 0;
    if (t->in[1] == 0xFF || (t->in[1] == 2 && !t->user)) return NETIO_EACCES;
    if (t->in[1] != 0 && t->in[1] != 2) return NETIO_EPROTO;
    t->step = t->in[1] ? NETIO__TUNNEL_USER : NETIO__TUNNEL_REPLY;
    netio__tunnel_go(t, t->in[1] ? 1 : 2);
    return 1;
}

static int netio__tunnel_verdict(netio_tunnel *t)
{
    if (t->in[0] != 1) return NETIO_EPROTO;
    if (t->in_len < 2) return 0;
    if (t->in[1] != 0) return NETIO_EACCES;
    t->step = NETIO__TUNNEL_REPLY;
    netio__tunnel_go(t, 2);
    return 1;
}

static int netio__tunnel_reply(netio_tunnel *t)
{
    const uint8_t *p = t->in;
    size_t n = t->in_len, need;
    if (p[0] != 5) return NETIO_EPROTO;
    if (n > 1 && p[1]) return netio__tunnel_refusal(p[1]); // some close without the rest
    if (n > 2 && p[2]) return NETIO_EPROTO;
    if (n > 3 && p[3] != 1 && p[3] != 3 && p[3] != 4) return NETIO_EPROTO;
    if (n < 5) return 0;
    need = p[3] == 1 ? 10 : p[3] == 4 ? 22 : (size_t)7 + p[4];
    if (n < need) return 0;
    t->step = NETIO__TUNNEL_OPEN;
    return 1;
}

// --- HTTP CONNECT: RFC 9110 section 9.3.6 ------------------------------------------------------

#ifndef NETIO_NO_HTTP
static int netio__tunnel_connect(netio_tunnel *t, const netio__tunnel_user *u, const char *target)
{
    char plain[512], basic[700], head[sizeof t->out];
    size_t cap = sizeof head, at = 0, n = u->name_len;
    if (memchr(u->name, ':', n) || !netio__http_is_text(u->name, n) ||
        !netio__http_is_text(u->password, u->password_len))
        return NETIO_EINVAL;
    at = netio__text_z(head, cap, at, "CONNECT ");
    at = netio__text_z(head, cap, at, target);
    at = netio__text_z(head, cap, at, " HTTP/1.1\r\nHost: ");
    at = netio__text_z(head, cap, at, target);
    if (n) {
        memcpy(plain, u->name, n);
        plain[n++] = ':';
        memcpy(plain + n, u->password, u->password_len);
        netio_base64_encode(basic, sizeof basic, plain, n + u->password_len);
        at = netio__text_z(head, cap, at, "\r\nProxy-Authorization: Basic ");
        at = netio__text_z(head, cap, at, basic);
    }
    at = netio__text_z(head, cap, at, "\r\n\r\n");
    netio__tunnel_put(t, head, at);
    t->out_len[0] = t->out_end;
    t->step = NETIO__TUNNEL_HEAD;
    return 0;
}

static int netio__tunnel_status(int status)
{
    switch (status) {
    case 401:
    case 403:
    case 407: return NETIO_EACCES;
    case 405:
    case 501: return NETIO_ENOTSUP;
    case 502:
    case 503: return NETIO_EHOSTUNREACH;
    case 504: return NETIO_ETIMEDOUT;
    default: return status == 101 || status >= 300 ? (int)NETIO_ECONNREFUSED : 1;
    }
}

// What the fields say of a body does not count here, so they are checked and no more.
static int netio__tunnel_head(netio_tunnel *t)
{
    netio_http_head head;
    netio_buf line;
    const char *p = (const char *)t->in;
    size_t n = t->in_len, last = n - 1, at = 0;
    if (memcmp(p, "HTTP/1.", n < 7 ? n : 7) != 0) return NETIO_EPROTO;
    int r = netio__http_scan(&last, &t->scan, t->in, n);
    if (r <= 0) return r == 0 && n == sizeof t->in ? (int)NETIO_EMSGSIZE : r;
    if (!netio__http_line(&line, p, n, &at) || !netio__http_status_line(&head, p, line.len) ||
        !netio__http_fields_ok(p + at, n - 2 - at))
        return NETIO_EPROTO;
    r = netio__tunnel_status(head.status);
    if (r > 0 && head.status >= 200) t->step = NETIO__TUNNEL_OPEN; // 100 or 103 may come before
    return r;
}
#else
static int netio__tunnel_connect(netio_tunnel *t, const netio__tunnel_user *u, const char *target)
{
    (void)t, (void)u, (void)target;
    return NETIO_ENOTSUP;
}

static int netio__tunnel_head(netio_tunnel *t)
{
    (void)t;
    return NETIO_ENOTSUP;
}
#endif

// --- both --------------------------------------------------------------------------------------

// "host:port" of something that can be connected to. `ip` is empty for a name.
static int netio__tunnel_target(const char *text, netio_addr *a, netio_buf *ip, netio_buf *host,
                                uint16_t *port)
{
    char name[256];
    netio_buf number;
    size_t len = strlen(text);
    memset(ip, 0, sizeof *ip);
    int err = netio_addr_split(host, &number, text, len);
    if (err < 0) return err;
    if (!netio__parse_port(port, (const char *)number.data, number.len)) return NETIO_EINVAL;
    if (netio_addr_parse(a, text, len) == 0) {
        *ip = netio_addr_ip(a);
        return ip->len && !(netio_addr_class(a) & NETIO_ADDR_ANY) && !netio_addr_scope(a)
                   ? 0
                   : NETIO_EINVAL;
    }
    if (text[0] == '[') return NETIO_EINVAL;
    if (!netio__copy_text(name, sizeof name, host)) return NETIO_ENAMETOOLONG;
    for (size_t i = 0; i < host->len; i++)
        if ((unsigned char)name[i] > 126) return NETIO_EINVAL; // neither protocol has a way for it
    return netio__host_ok(name) ? 0 : NETIO_EINVAL;
}

NETIO_API int netio_tunnel_init(netio_tunnel *t, const char *proxy, const char *target)
{
    bool socks = strncmp(proxy, "socks5://", 9) == 0;
    const char *address = strstr(proxy, "://");
    netio__tunnel_user user;
    netio_addr a;
    netio_buf ip, host, proxy_host, proxy_port;
    uint16_t port = 0;
    if (!address) return NETIO_EINVAL;
    if (!socks && strncmp(proxy, "http://", 7) != 0) return NETIO_ENOTSUP;
    address += 3;
    memset(t, 0, sizeof *t);
    int err = netio__tunnel_read_user(&user, &address);
    if (err == 0) err = netio__tunnel_target(target, &a, &ip, &host, &port);
    if (err == 0) err = netio_addr_split(&proxy_host, &proxy_port, address, strlen(address));
    if (err < 0) return err;
    if (strlen(address) >= sizeof t->address) return NETIO_ENAMETOOLONG;
    memcpy(t->address, address, strlen(address) + 1);
    if (socks) netio__tunnel_socks(t, &user, ip, host, port);
    else err = netio__tunnel_connect(t, &user, target);
    netio__tunnel_go(t, 0);
    return err;
}

NETIO_API netio_buf netio_tunnel_output(netio_tunnel *t)
{
    netio_buf out;
    out.data = t->out + t->out_at;
    out.len = t->out_end - t->out_at;
    t->out_at = t->out_end;
    return out;
}

static int netio__tunnel_step(netio_tunnel *t)
{
    switch (t->step) {
    case NETIO__TUNNEL_METHOD: return netio__tunnel_method(t);
    case NETIO__TUNNEL_USER: return netio__tunnel_verdict(t);
    case NETIO__TUNNEL_REPLY: return netio__tunnel_reply(t);
    default: return netio__tunnel_head(t);
    }
}

NETIO_API int netio_tunnel_input(netio_tunnel *t, const void *data, size_t len, size_t *used)
{
    const uint8_t *p = (const uint8_t *)data;
    *used = 0;
    while (t->err == 0 && t->step != NETIO__TUNNEL_OPEN && *used < len) {
        t->in[t->in_len++] = p[(*used)++];
        int r = netio__tunnel_step(t);
        if (r != 0) t->in_len = 0; // the next answer begins
        if (r < 0) t->err = r;
    }
    return t->err ? t->err : t->step == NETIO__TUNNEL_OPEN;
}
#endif // NETIO_NO_SOCKS
#endif // NETIO_NO_FRAME

#if NETIO__HAS_LOOP
//================================================================================================
// >>loop.c
//
// All that a loop owns are nodes: connections, listeners, connect attempts, endpoints, watches,
// timers, lookups, signals. They lie in slabs that are never given back before the loop ends, so a
// handle (pointer and generation) can always be looked at. A turn waits in the engine, which
// reports what happened; then come posts, timers, and the work list: each node that was touched is
// flushed, changes its interest, gets the callbacks that had to wait, and is freed if it has ended.
//================================================================================================

#if !NETIO__HAS_THREADS // the locks are nothing then
typedef int netio__os_mutex;
typedef int netio__os_cond;
#define NETIO__OS_MUTEX_INIT 0
static void netio__os_lock(netio__os_mutex *m) { (void)m; }
static void netio__os_unlock(netio__os_mutex *m) { (void)m; }
static void netio__os_sync_close(netio__os_mutex *m, netio__os_cond *c) { (void)m, (void)c; }
static int netio__os_sync_open(netio__os_mutex *m, netio__os_cond *c)
{
    *m = *c = 0;
    return 0;
}
#endif

enum {
    NETIO__CONN,
    NETIO__LISTENER,
    NETIO__ATTEMPT,
    NETIO__UDP,
    NETIO__WATCH,
    NETIO__TIMER,
    NETIO__LOOKUP,
    NETIO__SIGNAL,
    NETIO__KINDS
};

typedef union netio__io { // an engine's own end of it
    netio_socket socket;  // readiness
    void *memory;
} netio__io;

typedef struct netio__node {
    uint64_t gen; // of the live handle; 0: free
    netio_loop *loop;
    struct netio__node *next; // in the work list, or the free list
    netio__io io;
    uint32_t timer;  // place in the heap and 1; 0: none runs
    uint8_t kind;    // NETIO__CONN...
    uint8_t engine;  // which of the loop's: 0, or 1 for pairs in memory
    uint8_t armed;   // readiness: NETIO_EV_* in the poller, NETIO__REGISTERED
    uint8_t working; // NETIO__QUEUED...
} netio__node;

enum { NETIO__IDLE, NETIO__QUEUED, NETIO__AT_WORK, NETIO__AGAIN }; // a node and the work list

#define NETIO__REGISTERED 128 // in a node's `armed`: the poller knows the socket
#define NETIO__NEVER_US UINT64_MAX
#define NETIO__SLAB 64 // nodes of a block

typedef struct netio__slab {
    uint8_t **blocks;
    size_t count, cap, live;
    size_t size; // of one node
    netio__node *free;
} netio__slab;

typedef struct netio__due { // in a heap
    uint64_t us, seq;
    uint32_t *place; // in its owner: where it lies in the heap and 1; 0: nowhere
} netio__due;

typedef struct netio__heap {
    netio__due *items;
    size_t count, cap;
} netio__heap;

typedef struct netio__post {
    struct netio__post *next;
    netio_task task, drop;
    void *user; // the copy behind this struct, if there is one
} netio__post;

typedef struct netio__chunk netio__chunk;
typedef struct netio__names netio__names;
typedef struct netio__member netio__member; // a loop on a network

// --- the seam ----------------------------------------------------------------------------------
//
// What an engine does for a node, and what it reports. The rules are those of completion: memory
// given to `send` as lent is untouched until the engine is done with it; what arrives after reading
// was stopped is still reported, and kept by the connection; a node is recycled only after
// netio__closed. Reports come from `wait` and `due` only, but for netio__closed, which may come
// from inside `close`.

typedef struct netio__engine_ops {
    // Make an end and put it into n->io; addresses in text are literals. Nothing is reported before
    // `want`, but by connect, which ends in netio__connected unless it returns at once: 0
    // connected, NETIO_EINPROGRESS, or an error (n->io untouched).
    int (*listen)(netio__node *n, const char *address, const netio_socket_opts *o);
    int (*connect)(netio__node *n, const netio_addr *a, const netio_socket_opts *o);
    int (*bind)(netio__node *n, const char *address, const char *peer, const netio_socket_opts *o);
    void (*own)(netio__node *n); // n->io was moved here: report to this node from now on
    // What to report: NETIO_EV_READ (clients, bytes, datagrams), NETIO_EV_WRITE (once: sending goes
    // on). 0: nothing.
    int (*want)(netio__node *n, unsigned events);
    // Returns bytes sent; NETIO_EAGAIN: ask for NETIO_EV_WRITE; if `lent` also NETIO_EINPROGRESS:
    // the engine holds the bytes until it reports netio__conn_sent.
    ptrdiff_t (*send)(netio__node *n, const netio_buf *bufs, size_t count, bool lent);
    // Returns bytes sent; NETIO_EAGAIN; NETIO_ETRUNCATED; NETIO_ENOTSUP: read the file and send.
    ptrdiff_t (*send_file)(netio__node *n, netio_file file, uint64_t off, uint64_t len);
    ptrdiff_t (*send_batch)(netio__node *n, const netio_datagram *msgs, size_t count);
    int (*shutdown)(netio__node *n);
    void (*close)(netio__node *n, bool reset);        // ends in netio__closed
    void (*discard)(netio_loop *loop, netio__io io);  // an end that no node took: reset
    int (*detach)(netio__node *n, netio_socket *out); // NETIO_ENOTSUP
    int (*name)(netio__node *n, netio_addr *out, bool peer);
    int (*socket)(netio__node *n, netio_socket *out); // NETIO_ENOTSUP
    int (*lookup)(netio_loop *loop, const char *host_port, netio_addr *out, size_t *count);
    // Wait until `until_us` on the loop's clock at most, set the clock, report. Sets loop->woken,
    // loop->stopped.
    int (*wait)(netio_loop *loop, uint64_t until_us);
    uint64_t (*next)(netio_loop *loop);           // when something is due by itself; may be NULL
    void (*due)(netio_loop *loop);                // report what is due now; may be NULL
    void (*leave)(netio_loop *loop, bool forked); // the loop ends
} netio__engine_ops;

struct netio_loop {
    const netio__engine_ops *engines[2];
    netio_poller *poller;   // of the readiness engine, else NULL
    netio_network *network; // that it is on, or its own for pairs
    netio__member *member;  // its place in that
    netio_loop_opts opts;
    uint64_t now_us, next_gen, seq;
    uint32_t tick; // now_us in ms, its lower half
    netio__slab slabs[NETIO__KINDS];
    netio__heap heap;
    netio__node *work, *work_last;
    uint8_t *buf; // what is received lies here; its size is opts.recv_buffer
    netio_datagram *batch;
    netio__chunk *pool[2]; // free chunks, small and large
    size_t pool_count[2];
    netio__chunk *spare;                    // one of another size
    netio__chunk *released, *released_last; // whose release function must run
    size_t active;                          // nodes that keep run going
    size_t lookups;                         // that were not told and not cancelled
    uint64_t calls;                         // callbacks run
    netio__node *lending;                   // whose on_data runs, and what it keeps
    const uint8_t *lent_data;
    const netio_filter_io *lent_by; // the filter that was outermost then
    size_t lent, kept;
    netio_conn *closing; // connections that close, oldest first
    size_t closing_first, closing_count, closing_cap;
    size_t starved;   // listeners that wait for descriptors
    size_t lingering; // refused connections that are still there
    netio__names *names;
    netio__node signal_node; // the pipe of signals; io.socket, invalid: none
    netio_socket signal_pipe[2];
    bool running, stopped, woken, destroying, finishing, finish_begun, virtual_clock;
    uint64_t finish_us;
    netio_stats stats;
    uint64_t thread, turn_us; // NETIO_DEBUG: that runs it; when the turn began
    netio__os_mutex lock;     // guards what follows
    netio__os_cond unused;
    netio__post *posts, *posts_last;
    netio_stats published;
};

// What engines report. `io` of netio__accepted belongs to the loop from then on; `peer` NULL: ask.
static void netio__accepted(netio__node *listener, netio__io io, const netio_addr *peer);
static void netio__accept_failed(netio__node *listener, int err);
static void netio__connected(netio__node *attempt, int err);
static void netio__received(netio__node *conn, const void *data, size_t len); // data: lent
static void netio__ended(netio__node *conn);                                  // the peer's FIN
static void netio__failed(netio__node *conn, int err);                        // reading is over
static void netio__sent(netio__node *conn, ptrdiff_t n);                      // of a lent send
static void netio__writable(netio__node *n);                                  // conn or endpoint
static void netio__datagrams(netio__node *udp, netio_datagram *msgs, size_t count); // lent
static void netio__datagram_failed(netio__node *udp, int err);
static void netio__closed(netio__node *n);
// Bytes that the connection would take now: 0: none, stop reading.
static size_t netio__appetite(const netio__node *conn);

// Below: one switch each over the kinds.
static void netio__node_event(netio__node *n, unsigned events); // readiness
static void netio__node_timer(netio__node *n);
static void netio__node_work(netio__node *n);

static const netio__engine_ops *netio__ops(const netio__node *n)
{
    return n->loop->engines[n->engine];
}

static const netio__engine_ops *netio__ops_of(const netio_loop *loop) { return loop->engines[0]; }

// --- clock -------------------------------------------------------------------------------------

static uint64_t netio__network_clock(const netio_network *net);

static uint64_t netio__loop_clock(const netio_loop *loop)
{
    if (loop->virtual_clock) return netio__network_clock(loop->network);
    return loop->opts.now_us ? loop->opts.now_us(loop->opts.user) : netio__os_now_us();
}

static void netio__loop_tick(netio_loop *loop)
{
    uint64_t now = netio__loop_clock(loop);
    if (now > loop->now_us) loop->now_us = now;
    loop->tick = (uint32_t)(loop->now_us / 1000u);
}

// The time of this call, which may be later than the turn's: a callback may have been slow.
static uint64_t netio__loop_time(const netio_loop *loop)
{
    uint64_t now = netio__loop_clock(loop);
    return now > loop->now_us ? now : loop->now_us;
}

static uint64_t netio__in_ms(const netio_loop *loop, int ms)
{
    return loop->now_us + (uint64_t)(ms > 0 ? ms : 0) * 1000u;
}

static void netio__log(netio_loop *loop, int level, const char *what, int err)
{
    char line[256];
    if (!loop->opts.log) return;
    size_t at = netio__text_z(line, sizeof line, 0, what);
    if (err) {
        at = netio__text_z(line, sizeof line, at, ": ");
        netio__text_z(line, sizeof line, at, netio_strerror(err));
    }
    loop->opts.log(loop->opts.user, level, line);
}

// --- nodes -------------------------------------------------------------------------------------

static int netio__slab_grow(netio__slab *slab)
{
    void *blocks = slab->blocks;
    int err = netio__array_grow(&blocks, &slab->cap, slab->count + 1, sizeof *slab->blocks);
    if (err < 0) return err;
    slab->blocks = (uint8_t **)blocks;
    uint8_t *block = (uint8_t *)NETIO_MALLOC(NETIO__SLAB * slab->size);
    if (!block) return NETIO_ENOMEM;
    memset(block, 0, NETIO__SLAB * slab->size);
    slab->blocks[slab->count++] = block;
    for (size_t i = NETIO__SLAB; i-- > 0;) {
        netio__node *n = (netio__node *)(void *)(block + i * slab->size);
        n->next = slab->free;
        slab->free = n;
    }
    return 0;
}

// The i-th place of a slab, in use or not; NULL past the last.
static netio__node *netio__slab_at(const netio__slab *slab, size_t i)
{
    if (i / NETIO__SLAB >= slab->count) return NULL;
    return (netio__node *)(void *)(slab->blocks[i / NETIO__SLAB] + i % NETIO__SLAB * slab->size);
}

// All zero but for the head. NULL: no memory.
static netio__node *netio__node_make(netio_loop *loop, int kind)
{
    netio__slab *slab = &loop->slabs[kind];
    if (!slab->free && netio__slab_grow(slab) < 0) return NULL;
    netio__node *n = slab->free;
    slab->free = n->next;
    memset(n, 0, slab->size);
    n->gen = ++loop->next_gen;
    n->loop = loop;
    n->kind = (uint8_t)kind;
    n->io.socket = NETIO_INVALID_SOCKET;
    slab->live++;
    loop->active++;
    return n;
}

static void netio__timer_clear(netio__node *n);

static void netio__node_free(netio__node *n)
{
    netio__slab *slab = &n->loop->slabs[n->kind];
    netio__timer_clear(n);
    NETIO_ASSERT(n->gen && n->working != NETIO__QUEUED);
    n->working = NETIO__IDLE;
    n->gen = 0;
    n->next = slab->free;
    slab->free = n;
    slab->live--;
    n->loop->active--;
}

// The node behind a handle; NULL: it has ended.
static netio__node *netio__node_of(void *ptr, uint64_t gen)
{
    netio__node *n = (netio__node *)ptr;
    return n && gen && n->gen == gen ? n : NULL;
}

#if NETIO_DEBUG && NETIO__WINDOWS
static uint64_t netio__thread_id(void) { return GetCurrentThreadId(); }
#elif NETIO_DEBUG && NETIO__HAS_THREADS
static uint64_t netio__thread_id(void) { return (uint64_t)(uintptr_t)pthread_self(); }
#else
static uint64_t netio__thread_id(void) { return 0; }
#endif

static void netio__work(netio__node *n)
{
    netio_loop *loop = n->loop;
    // Only post, stop and stats may be called from another thread.
    NETIO_ASSERT(!loop->running || loop->thread == netio__thread_id());
    if (n->working == NETIO__AT_WORK) n->working = NETIO__AGAIN;
    if (n->working != NETIO__IDLE) return;
    n->working = NETIO__QUEUED;
    n->next = NULL;
    if (loop->work) loop->work_last->next = n;
    else loop->work = n;
    loop->work_last = n;
}

// Out of the list, for a node that is taken back before anybody knew of it.
static void netio__unwork(netio__node *n)
{
    netio_loop *loop = n->loop;
    netio__node **at = &loop->work, *before = NULL;
    if (n->working != NETIO__QUEUED) return;
    for (; *at != n; at = &(*at)->next) before = *at;
    *at = n->next;
    if (loop->work_last == n) loop->work_last = before;
    n->working = NETIO__IDLE;
}

// What was touched, until nothing is; those that touch each other again and again go on in the next
// turn.
static void netio__work_run(netio_loop *loop)
{
    for (int round = 0; round < 16 && loop->work; round++) {
        netio__node *n = loop->work, *last = loop->work_last;
        for (bool more = true; more && n; n = loop->work) {
            uint64_t gen = n->gen;
            more = n != last;
            loop->work = n->next;
            n->working = NETIO__AT_WORK;
            netio__node_work(n);
            if (n->gen != gen || n->working == NETIO__IDLE) continue; // freed
            bool again = n->working == NETIO__AGAIN;
            n->working = NETIO__IDLE;
            if (again) netio__work(n);
        }
    }
}

// --- timers: a heap of four children, earliest first, equal ones in order of start --------------

static bool netio__due_before(const netio__due *a, const netio__due *b)
{
    return a->us != b->us ? a->us < b->us : a->seq < b->seq;
}

static void netio__heap_put(netio__heap *h, size_t i, netio__due d)
{
    h->items[i] = d;
    *d.place = (uint32_t)i + 1;
}

static void netio__heap_up(netio__heap *h, size_t i, netio__due d)
{
    while (i > 0 && netio__due_before(&d, &h->items[(i - 1) / 4])) {
        netio__heap_put(h, i, h->items[(i - 1) / 4]);
        i = (i - 1) / 4;
    }
    netio__heap_put(h, i, d);
}

static void netio__heap_down(netio__heap *h, size_t i, netio__due d)
{
    for (;;) {
        size_t first = 4 * i + 1, best = first;
        if (first >= h->count) break;
        for (size_t j = first + 1; j < first + 4 && j < h->count; j++)
            if (netio__due_before(&h->items[j], &h->items[best])) best = j;
        if (!netio__due_before(&h->items[best], &d)) break;
        netio__heap_put(h, i, h->items[best]);
        i = best;
    }
    netio__heap_put(h, i, d);
}

// Puts it in, or moves it. NETIO_ENOMEM only if it was not in.
static int netio__heap_set(netio__heap *h, uint32_t *place, uint64_t us, uint64_t seq)
{
    netio__due d;
    d.us = us;
    d.seq = seq;
    d.place = place;
    if (*place) {
        size_t i = *place - 1;
        if (netio__due_before(&h->items[i], &d)) netio__heap_down(h, i, d);
        else netio__heap_up(h, i, d);
        return 0;
    }
    void *items = h->items;
    int err = netio__array_grow(&items, &h->cap, h->count + 1, sizeof *h->items);
    if (err < 0) return err;
    h->items = (netio__due *)items;
    netio__heap_up(h, h->count++, d);
    return 0;
}

static void netio__heap_clear(netio__heap *h, uint32_t *place)
{
    if (!*place) return;
    size_t i = *place - 1;
    *place = 0;
    netio__due last = h->items[--h->count];
    if (i == h->count) return;
    if (i > 0 && netio__due_before(&last, &h->items[(i - 1) / 4])) netio__heap_up(h, i, last);
    else netio__heap_down(h, i, last);
}

// Runs netio__node_timer at that time, once; replaces what was set before.
static int netio__timer_set(netio__node *n, uint64_t us)
{
    return netio__heap_set(&n->loop->heap, &n->timer, us, ++n->loop->seq);
}

static void netio__timer_clear(netio__node *n) { netio__heap_clear(&n->loop->heap, &n->timer); }

static netio__node *netio__timer_owner(const netio__due *d)
{
    return (netio__node *)(void *)((char *)(void *)d->place - offsetof(netio__node, timer));
}

typedef struct netio__timer {
    netio__node node;
    netio_task task;
    void *user;
    uint64_t due_us, period_us; // 0: once
    uint64_t set_us, seq;       // where it stands in the heap, at or before due_us; of its order
} netio__timer;

static int netio__timer_put(netio__timer *t)
{
    netio_loop *loop = t->node.loop;
    t->set_us = t->due_us;
    t->seq = ++loop->seq;
    return netio__heap_set(&loop->heap, &t->node.timer, t->due_us, t->seq);
}

// Timers that were put off keep their place in the heap until that is the first.
static void netio__timers_settle(netio_loop *loop)
{
    const netio__heap *h = &loop->heap;
    while (h->count) {
        netio__timer *t = (netio__timer *)(void *)netio__timer_owner(&h->items[0]);
        if (t->node.kind != NETIO__TIMER || t->due_us <= t->set_us) return;
        t->set_us = t->due_us;
        netio__heap_set(&loop->heap, &t->node.timer, t->due_us, t->seq);
    }
}

static void netio__timers_run(netio_loop *loop)
{
    uint64_t last = loop->seq; // those set meanwhile wait for the next turn
    const netio__heap *h = &loop->heap;
    netio__timers_settle(loop);
    while (h->count && h->items[0].us <= loop->now_us && h->items[0].seq <= last) {
        netio__node *n = netio__timer_owner(&h->items[0]);
        netio__timer_clear(n);
        netio__node_timer(n);
        netio__timers_settle(loop);
    }
}

static int netio__timer_start(netio_timer *out, netio_loop *loop, uint64_t delay_us,
                              uint64_t period, netio_task task, void *user)
{
    if (!loop || !task) return NETIO_EINVAL;
    if (loop->destroying) return NETIO_ECANCELED;
    netio__timer *t = (netio__timer *)(void *)netio__node_make(loop, NETIO__TIMER);
    if (!t) return NETIO_ENOMEM;
    t->task = task;
    t->user = user;
    t->period_us = period;
    t->due_us = netio__loop_time(loop) + delay_us;
    int err = netio__timer_put(t);
    if (err < 0) {
        netio__node_free(&t->node);
        return err;
    }
    if (out) {
        out->ptr = t;
        out->gen = t->node.gen;
    }
    return 0;
}

NETIO_API int netio_timer_once(netio_timer *out, netio_loop *loop, int delay_ms, netio_task task,
                               void *user)
{
    uint64_t delay = delay_ms > 0 ? (uint64_t)delay_ms * 1000u : 0;
    return netio__timer_start(out, loop, delay, 0, task, user);
}

NETIO_API int netio_timer_every(netio_timer *out, netio_loop *loop, int period_ms, netio_task task,
                                void *user)
{
    if (period_ms < 1) return NETIO_EINVAL;
    uint64_t period = (uint64_t)period_ms * 1000u;
    return netio__timer_start(out, loop, period, period, task, user);
}

NETIO_API int netio_timer_reset(netio_timer h, int delay_ms)
{
    netio__timer *t = (netio__timer *)(void *)netio__node_of(h.ptr, h.gen);
    if (!t) return NETIO_ESTALE;
    t->due_us = netio__loop_time(t->node.loop) + (delay_ms > 0 ? (uint64_t)delay_ms * 1000u : 0);
    if (!t->node.timer || t->due_us <= t->set_us) return netio__timer_put(t);
    t->seq = ++t->node.loop->seq; // put off: the heap hears of it when its turn comes
    return 0;
}

NETIO_API void netio_timer_stop(netio_timer h)
{
    netio__node *n = netio__node_of(h.ptr, h.gen);
    if (n) netio__node_free(n);
}

static void netio__timer_due(netio__timer *t)
{
    netio_loop *loop = t->node.loop;
    netio_task task = t->task;
    void *user = t->user;
    if (t->period_us) { // the phase is kept, ticks that were missed are skipped
        uint64_t late = loop->now_us > t->due_us ? loop->now_us - t->due_us : 0;
        t->due_us += (late / t->period_us + 1) * t->period_us;
        netio__timer_put(t); // its place in the heap was just freed
    } else {
        netio__node_free(&t->node);
    }
    loop->calls++;
    task(user);
}

// --- tasks from other threads ------------------------------------------------------------------

static void netio__loop_wake(netio_loop *loop)
{
    if (loop->poller) netio_poller_wake(loop->poller);
}

static netio__post *netio__post_make(netio_task task, netio_task drop, void *user, size_t len)
{
    netio__post *p = (netio__post *)NETIO_MALLOC(sizeof *p + len);
    if (!p) return NULL;
    p->task = task;
    p->drop = drop;
    p->user = len ? p + 1 : user;
    if (len) memcpy(p + 1, user, len);
    return p;
}

static void netio__post_put(netio_loop *loop, netio__post *p)
{
    p->next = NULL;
    netio__os_lock(&loop->lock);
    bool first = !loop->posts;
    if (first) loop->posts = p;
    else loop->posts_last->next = p;
    loop->posts_last = p;
    netio__os_unlock(&loop->lock);
    if (first) netio__loop_wake(loop);
}

NETIO_API int netio_loop_post(netio_loop *loop, netio_task task, netio_task drop, void *user,
                              size_t len)
{
    if (!loop || !task || (len && !user) || len > SIZE_MAX / 2) return NETIO_EINVAL;
    netio__post *p = netio__post_make(task, drop, user, len);
    if (!p) return NETIO_ENOMEM;
    netio__post_put(loop, p);
    return 0;
}

static netio__post *netio__posts_take(netio_loop *loop)
{
    netio__os_lock(&loop->lock);
    netio__post *list = loop->posts;
    loop->posts = loop->posts_last = NULL;
    netio__os_unlock(&loop->lock);
    return list;
}

static void netio__posts_run(netio_loop *loop, bool drop)
{
    netio__post *p = netio__posts_take(loop);
    while (p) {
        netio__post *next = p->next;
        netio_task task = drop ? p->drop : p->task;
        loop->calls++;
        if (task) task(p->user);
        NETIO_FREE(p);
        p = next;
    }
}

static bool netio__posts_wait(netio_loop *loop)
{
    netio__os_lock(&loop->lock);
    bool any = loop->posts != NULL;
    netio__os_unlock(&loop->lock);
    return any;
}

// --- watches -----------------------------------------------------------------------------------

typedef struct netio__watch {
    netio__node node;
    void (*ready)(void *user, unsigned events);
    void *user;
} netio__watch;

NETIO_API int netio_watch_start(netio_watch *out, netio_loop *loop, netio_socket s, unsigned events,
                                void (*ready)(void *user, unsigned events), void *user)
{
    if (!loop || !ready || (events & ~(unsigned)NETIO__INTEREST)) return NETIO_EINVAL;
    if (!loop->poller) return NETIO_ENOTSUP;
    if (loop->destroying) return NETIO_ECANCELED;
    netio__watch *w = (netio__watch *)(void *)netio__node_make(loop, NETIO__WATCH);
    if (!w) return NETIO_ENOMEM;
    int err = netio_poller_add(loop->poller, s, events, w);
    if (err < 0) {
        netio__node_free(&w->node);
        return err;
    }
    w->node.io.socket = s;
    w->ready = ready;
    w->user = user;
    if (out) {
        out->ptr = w;
        out->gen = w->node.gen;
    }
    return 0;
}

NETIO_API int netio_watch_modify(netio_watch h, unsigned events)
{
    netio__node *n = netio__node_of(h.ptr, h.gen);
    if (!n) return NETIO_ESTALE;
    if (events & ~(unsigned)NETIO__INTEREST) return NETIO_EINVAL;
    return netio_poller_modify(n->loop->poller, n->io.socket, events, n);
}

// Freed at the end of the turn: an event of the same batch may still name it.
NETIO_API void netio_watch_stop(netio_watch h)
{
    netio__watch *w = (netio__watch *)(void *)netio__node_of(h.ptr, h.gen);
    if (!w) return;
    netio_poller_remove(w->node.loop->poller, w->node.io.socket);
    w->ready = NULL;
    w->node.gen = ++w->node.loop->next_gen; // stale from now on
    netio__work(&w->node);
}

static void netio__watch_event(netio__watch *w, unsigned events)
{
    if (!w->ready) return;
    w->node.loop->calls++;
    w->ready(w->user, events);
}

// --- signals: a handler writes the number into a pipe of the loop that asked for it -------------

typedef struct netio__signal {
    netio__node node;
    netio_task task;
    void *user;
    int signum;
} netio__signal;

#define NETIO__SIGNALS 65

typedef struct netio__signal_entry {
    bool used;
    netio_socket pipe;
#if !NETIO__WINDOWS
    struct sigaction before;
#endif
} netio__signal_entry;

static netio__signal_entry netio__signals[NETIO__SIGNALS]; // the OS's handlers are the process's
static netio__os_mutex netio__signal_lock = NETIO__OS_MUTEX_INIT;

#if NETIO__WINDOWS
static int netio__signal_of(DWORD event)
{
    return event == CTRL_C_EVENT ? 2 : event == CTRL_BREAK_EVENT ? 21 : 15; // SIGINT, BREAK, TERM
}

// Runs on a thread of the system's. After a close event the process ends when this returns.
static BOOL WINAPI netio__signal_handler(DWORD event)
{
    char number = (char)netio__signal_of(event);
    netio__os_lock(&netio__signal_lock);
    netio__signal_entry e = netio__signals[(int)number];
    if (e.used) send(e.pipe, &number, 1, 0);
    netio__os_unlock(&netio__signal_lock);
    if (e.used && event != CTRL_C_EVENT && event != CTRL_BREAK_EVENT) Sleep(10000);
    return e.used;
}

// Installed once and for good: what nobody has started it passes on. (Taking it out would wait for
// the system's lock, which is held while a handler runs, and that may wait for ours.)
static int netio__os_signal_start(int signum)
{
    static bool installed;
    if (signum != 2 && signum != 15 && signum != 21) return NETIO_EINVAL;
    if (!installed && !SetConsoleCtrlHandler(netio__signal_handler, TRUE)) return netio__os_fail();
    installed = true;
    return 0;
}

static void netio__os_signal_stop(int signum) { (void)signum; }
#else
static void netio__signal_handler(int signum)
{
    int code = errno;
    char byte = (char)signum;
    while (write(netio__signals[signum].pipe, &byte, 1) < 0 && errno == EINTR) {}
    errno = code;
}

static int netio__os_signal_start(int signum)
{
    struct sigaction now;
    memset(&now, 0, sizeof now);
    now.sa_handler = netio__signal_handler;
    now.sa_flags = SA_RESTART;
    sigfillset(&now.sa_mask);
    return sigaction(signum, &now, &netio__signals[signum].before) < 0 ? NETIO_EINVAL : 0;
}

static void netio__os_signal_stop(int signum)
{
    sigaction(signum, &netio__signals[signum].before, NULL);
}
#endif

static void netio__signal_pipe_close(netio_loop *loop)
{
    if (loop->signal_pipe[0] == NETIO_INVALID_SOCKET) return;
    if (loop->signal_node.armed) netio_poller_remove(loop->poller, loop->signal_pipe[0]);
    netio__os_close(loop->signal_pipe[0]);
    netio__os_close(loop->signal_pipe[1]);
    loop->signal_pipe[0] = loop->signal_pipe[1] = NETIO_INVALID_SOCKET;
    loop->signal_node.armed = 0;
}

static int netio__signal_pipe_open(netio_loop *loop)
{
    if (loop->signal_pipe[0] != NETIO_INVALID_SOCKET) return 0;
    int err = netio_pair(loop->signal_pipe, NETIO_STREAM);
    if (err < 0) return err;
    loop->signal_node.loop = loop;
    loop->signal_node.kind = NETIO__SIGNAL;
    err = netio_poller_add(loop->poller, loop->signal_pipe[0], NETIO_EV_READ, &loop->signal_node);
    if (err < 0) netio__signal_pipe_close(loop);
    else loop->signal_node.armed = NETIO_EV_READ;
    return err;
}

static int netio__signal_enter(netio_loop *loop, int signum)
{
    netio__signal_entry *e = &netio__signals[signum];
    netio__os_lock(&netio__signal_lock);
    int err = e->used ? (int)NETIO_EEXIST : 0;
    if (err == 0) {
        e->pipe = loop->signal_pipe[1];
        e->used = true;
        err = netio__os_signal_start(signum);
        if (err < 0) e->used = false;
    }
    netio__os_unlock(&netio__signal_lock);
    return err;
}

NETIO_API int netio_signal_start(netio_signal *out, netio_loop *loop, int signum, netio_task task,
                                 void *user)
{
    if (!loop || !task || signum < 1 || signum >= NETIO__SIGNALS) return NETIO_EINVAL;
    if (!loop->poller) return NETIO_ENOTSUP;
    if (loop->destroying) return NETIO_ECANCELED;
    int err = netio__signal_pipe_open(loop);
    if (err < 0) return err;
    netio__signal *s = (netio__signal *)(void *)netio__node_make(loop, NETIO__SIGNAL);
    if (!s) return NETIO_ENOMEM;
    err = netio__signal_enter(loop, signum);
    if (err < 0) {
        netio__node_free(&s->node);
        return err;
    }
    s->task = task;
    s->user = user;
    s->signum = signum;
    if (out) {
        out->ptr = s;
        out->gen = s->node.gen;
    }
    return 0;
}

static void netio__signal_leave(netio__signal *s)
{
    netio__os_lock(&netio__signal_lock);
    netio__os_signal_stop(s->signum);
    netio__signals[s->signum].used = false; // after the handler, which may still run
    netio__os_unlock(&netio__signal_lock);
}

NETIO_API void netio_signal_stop(netio_signal h)
{
    netio__signal *s = (netio__signal *)(void *)netio__node_of(h.ptr, h.gen);
    if (!s) return;
    netio__signal_leave(s);
    netio__node_free(&s->node);
}

static void netio__signal_came(netio_loop *loop, int signum)
{
    netio__node *n;
    for (size_t i = 0; (n = netio__slab_at(&loop->slabs[NETIO__SIGNAL], i)) != NULL; i++) {
        netio__signal *s = (netio__signal *)(void *)n;
        if (!n->gen || s->signum != signum) continue;
        loop->calls++;
        s->task(s->user);
        return;
    }
}

static void netio__signal_event(netio_loop *loop)
{
    char bytes[64];
    ptrdiff_t n = netio_recv(loop->signal_pipe[0], bytes, sizeof bytes, 0);
    for (ptrdiff_t i = 0; i < n; i++) netio__signal_came(loop, bytes[i]);
}

// --- lookups -----------------------------------------------------------------------------------
//
// A block of its own, shared by the loop and its resolver threads, holds the queue; the last to
// leave frees it. A thread works until the queue is empty, then ends. One that is stuck in the OS's
// resolver may outlive the loop: it touches this block and its lookup only.

typedef void (*netio__lookup_done)(void *user, int err, const netio_addr *addrs, size_t count);

typedef struct netio__query {
    struct netio__query *next;
    struct netio__wish *wish; // NULL: cancelled
    netio__lookup q;
} netio__query;

typedef struct netio__wish { // the node
    netio__node node;
    netio__lookup_done done;
    void *user;
    netio__query *query; // NULL: a literal; `addrs` has it
    netio__query *answer;
    int err;
} netio__wish;

struct netio__names {
    netio__os_mutex lock;
    netio__os_cond unused;
    netio_loop *loop; // NULL: gone
    size_t owners;    // the loop and the threads
    size_t idle_max;  // threads at most
    netio__query *waiting, *waiting_last, *answered;
};

static void netio__names_leave(netio__names *names) // locked; unlocks
{
    bool last = --names->owners == 0;
    netio__os_unlock(&names->lock);
    if (!last) return;
    netio__os_sync_close(&names->lock, &names->unused);
    NETIO_FREE(names);
}

#if NETIO__HAS_THREADS
static netio__query *netio__names_next(netio__names *names)
{
    netio__query *query = names->loop ? names->waiting : NULL;
    if (query) names->waiting = query->next;
    return query;
}

static netio__os_thread_result NETIO__OS_THREAD_CALL netio__names_thread(void *arg)
{
    netio__names *names = (netio__names *)arg;
    netio__query *query;
    netio__os_lock(&names->lock);
    while ((query = netio__names_next(names)) != NULL) {
        netio__os_unlock(&names->lock);
        netio__lookup_run(&query->q);
        netio__os_lock(&names->lock);
        if (names->loop && query->wish) {
            query->next = names->answered;
            names->answered = query;
            netio__loop_wake(names->loop);
        } else {
            NETIO_FREE(query);
        }
    }
    netio__lookup_enter(-1);
    netio__names_leave(names);
    return NETIO__OS_THREAD_DONE;
}

// Locked. A thread more, if there may be. An error counts only while there is none at all.
static int netio__names_hire(netio__names *names)
{
    if (names->owners - 1 >= names->idle_max) return 0;
    int err = netio__lookup_enter(1) ? 0 : NETIO_EBUSY;
    if (err == 0) {
        err = netio__os_thread(netio__names_thread, names);
        if (err < 0) netio__lookup_enter(-1);
    }
    if (err == 0) names->owners++;
    return names->owners > 1 ? 0 : err;
}
#else
static int netio__names_hire(netio__names *names)
{
    (void)names;
    return NETIO_ENOTSUP;
}
#endif

static int netio__names_open(netio_loop *loop)
{
    if (loop->names) return 0;
    netio__names *names = (netio__names *)NETIO_MALLOC(sizeof *names);
    if (!names) return NETIO_ENOMEM;
    memset(names, 0, sizeof *names);
    int err = netio__os_sync_open(&names->lock, &names->unused);
    if (err < 0) {
        NETIO_FREE(names);
        return err;
    }
    names->loop = loop;
    names->owners = 1;
    names->idle_max = loop->opts.resolver_threads;
    loop->names = names;
    return 0;
}

static void netio__queries_free(netio__query *query)
{
    while (query) {
        netio__query *next = query->next;
        NETIO_FREE(query);
        query = next;
    }
}

static void netio__names_close(netio_loop *loop)
{
    netio__names *names = loop->names;
    if (!names) return;
    netio__os_lock(&names->lock);
    names->loop = NULL;
    netio__queries_free(names->waiting);
    netio__queries_free(names->answered);
    names->waiting = names->answered = NULL;
    netio__names_leave(names);
}

static int netio__names_ask(netio_loop *loop, netio__query *query)
{
    int err = netio__names_open(loop);
    if (err < 0) return err;
    netio__names *names = loop->names;
    query->next = NULL;
    netio__os_lock(&names->lock);
    netio__query *last = names->waiting ? names->waiting_last : NULL;
    if (last) last->next = query;
    else names->waiting = query;
    names->waiting_last = query;
    err = netio__names_hire(names);
    if (err < 0) { // nobody would ever take it
        if (last) last->next = NULL;
        else names->waiting = NULL;
        names->waiting_last = last;
    }
    netio__os_unlock(&names->lock);
    return err;
}

// The thread frees a query that it has; one that still waits is taken out.
static void netio__names_forget(netio__names *names, netio__query *query)
{
    netio__query **at = &names->waiting, *before = NULL;
    netio__os_lock(&names->lock);
    query->wish = NULL;
    while (*at && *at != query) {
        before = *at;
        at = &(*at)->next;
    }
    bool waiting = *at != NULL;
    if (waiting) {
        *at = query->next;
        if (names->waiting_last == query) names->waiting_last = before;
    } else {
        for (at = &names->answered; *at && *at != query;) at = &(*at)->next;
        waiting = *at != NULL;
        if (waiting) *at = query->next;
    }
    netio__os_unlock(&names->lock);
    if (waiting) NETIO_FREE(query);
}

static void netio__wish_end(netio__wish *w, int err, const netio_addr *addrs, size_t count)
{
    netio_loop *loop = w->node.loop;
    netio__lookup_done done = w->done;
    void *user = w->user;
    netio__query *answer = w->answer;
    if (w->query && !answer) netio__names_forget(loop->names, w->query);
    netio__node_free(&w->node);
    loop->lookups--;
    loop->calls++;
    done(user, err, addrs, count);
    NETIO_FREE(answer);
}

static void netio__names_answers(netio_loop *loop)
{
    netio__names *names = loop->names;
    if (!names) return;
    for (;;) {
        netio__os_lock(&names->lock);
        netio__query *query = names->answered;
        if (query) names->answered = query->next;
        netio__os_unlock(&names->lock);
        if (!query) return;
        query->wish->answer = query;
        netio__wish_end(query->wish, query->q.err, query->q.found, query->q.count);
    }
}

// From the engine, which has names of its own.
static int netio__wish_lookup(netio_loop *loop, const char *host_port, netio__lookup *q)
{
    netio_addr found[NETIO_RESOLVE_MAX];
    size_t count = 0;
    int err = netio__ops_of(loop)->lookup(loop, host_port, found, &count);
    if (err < 0) return err;
    for (size_t i = 0; i < count; i++) netio__lookup_keep(q, found[i], false);
    return q->count ? 0 : NETIO_EAI_NONAME;
}

static int netio__wish_fill(netio__wish *w, const char *host_port, const netio_resolve_opts *opts)
{
    netio_loop *loop = w->node.loop;
    netio__query *query = (netio__query *)NETIO_MALLOC(sizeof *query);
    if (!query) return NETIO_ENOMEM;
    memset(query, 0, sizeof *query);
    query->wish = w;
    if (opts) {
        query->q.family = opts->family;
        query->q.resolver = opts->resolver;
        query->q.resolver_user = opts->resolver_user;
    }
    int err = netio__resolve_literal(&query->q, host_port);
    if (err == NETIO_EAGAIN && loop->engines[0]->lookup && !query->q.resolver) {
        err = netio__wish_lookup(loop, host_port, &query->q);
    }
    if (err == NETIO_EAGAIN) {
        w->query = query;
        err = netio__names_ask(loop, query);
        if (err < 0) w->query = NULL;
    } else if (err == 0 || err == NETIO_EAI_NONAME) { // known already: told at the end of the turn
        if (err < 0) query->q.err = err;
        w->answer = query;
        netio__work(&w->node);
        return 0;
    }
    if (err < 0) NETIO_FREE(query);
    return err;
}

NETIO_API int netio_lookup_start(netio_lookup *out, netio_loop *loop, const char *host_port,
                                 const netio_resolve_opts *opts, int timeout_ms,
                                 void (*done)(void *user, int err, const netio_addr *addrs,
                                              size_t count),
                                 void *user)
{
    if (!loop || !host_port || !done) return NETIO_EINVAL;
    if (opts && opts->family && opts->family != NETIO_IPV4 && opts->family != NETIO_IPV6)
        return NETIO_EINVAL;
    if (loop->destroying) return NETIO_ECANCELED;
    if (loop->lookups >= loop->opts.lookups_max) return NETIO_EBUSY;
    netio__wish *w = (netio__wish *)(void *)netio__node_make(loop, NETIO__LOOKUP);
    if (!w) return NETIO_ENOMEM;
    int err = 0;
    w->done = done;
    w->user = user;
    netio__loop_tick(loop);
    if (timeout_ms >= 0) err = netio__timer_set(&w->node, netio__in_ms(loop, timeout_ms));
    if (err == 0) err = netio__wish_fill(w, host_port, opts);
    if (err < 0) {
        netio__node_free(&w->node);
        return err;
    }
    loop->lookups++;
    if (out) {
        out->ptr = w;
        out->gen = w->node.gen;
    }
    return 0;
}

NETIO_API void netio_lookup_cancel(netio_lookup h)
{
    netio__wish *w = (netio__wish *)(void *)netio__node_of(h.ptr, h.gen);
    if (!w) return;
    if (w->query) netio__names_forget(w->node.loop->names, w->query);
    w->query = NULL;
    w->done = NULL;
    w->node.loop->lookups--;
    w->node.gen = ++w->node.loop->next_gen; // stale from now on
    netio__work(&w->node);
}

static void netio__wish_work(netio__wish *w)
{
    if (w->done) {
        netio__wish_end(w, w->answer->q.err, w->answer->q.found, w->answer->q.count);
        return;
    }
    NETIO_FREE(w->answer);
    netio__node_free(&w->node);
}

//================================================================================================
// >>conn.c
//
//     dialing --connected--> opening --filters ready--> open --close--> closing --FIN--> draining
//        |                      |                        |               |                |
//        '----------------------+------------------------+---------------+----------------+--> over
//
// Over: on_close is due, then the engine closes its end, then the node is free. What few
// connections need lies in a cold block that is made when first needed. Settings come from a block
// that all connections of a listener share; a connection that changes one gets its own copy.
//================================================================================================

enum { NETIO__DIALING, NETIO__OPENING, NETIO__OPEN, NETIO__CLOSING, NETIO__DRAINING, NETIO__OVER };

enum { // flags of a connection
    NETIO__PAUSED = 1,
    NETIO__WIRE_EOF = 2,            // the peer's FIN was read
    NETIO__EOF = 4,                 // its end of stream has passed the filters
    NETIO__EOF_TOLD = 8,            // on_eof has run
    NETIO__SHUT = 16,               // the handler sends no more
    NETIO__FIN_SENT = 32,           // nor do we
    NETIO__CONGESTED = 64,          // above the high mark and not yet at the low one
    NETIO__DRAIN_DUE = 128,         // on_drain at the low mark
    NETIO__LENT = 256,              // the engine holds the queue's chunks
    NETIO__BLOCKED = 512,           // sending goes on when the engine says so
    NETIO__READ_RATE = 1024,        // waits for tokens
    NETIO__WRITE_RATE = 2048,       //
    NETIO__TELL_OPEN = 4096,        // callbacks that are due
    NETIO__TELL_SECURE = 8192,      //
    NETIO__TELL_DRAIN = 16384,      //
    NETIO__TELL_KEPT = 32768,       // kept bytes are to be handed out again
    NETIO__DIALED = 65536,          // by this side
    NETIO__ADOPTED = 131072,        // made elsewhere
    NETIO__HANDED = 262144,         // the handle was given out: on_close is due at the end
    NETIO__TOLD = 524288,           // on_close has run
    NETIO__GONE = 1048576,          // the engine has closed its end
    NETIO__CLOSE_ASKED = 2097152,   // while dialing or opening
    NETIO__RESET = 4194304,         // to be closed with RST
    NETIO__LIMITED = 8388608,       // counted in its gate
    NETIO__CLOSED = 33554432,       // the engine was told to close
    NETIO__LINGERS = 67108864,      // refused, and told so
    NETIO__SHARED = 134217728,      // its socket may have duplicates
    NETIO__RATED = 268435456,       // a rate limits it
    NETIO__DRAIN_EMPTY = 536870912, // on_drain when nothing waits: the low mark was not enough
    // What makes an open connection differ from one that just receives and sends.
    NETIO__SPECIAL = NETIO__PAUSED | NETIO__WIRE_EOF | NETIO__EOF | NETIO__SHUT | NETIO__CONGESTED |
                     NETIO__DRAIN_DUE | NETIO__LENT | NETIO__BLOCKED | NETIO__READ_RATE |
                     NETIO__WRITE_RATE | NETIO__TELL_OPEN | NETIO__TELL_SECURE | NETIO__TELL_DRAIN |
                     NETIO__TELL_KEPT | NETIO__CLOSE_ASKED | NETIO__RATED
};

// What the connections of one listener share and are counted in.
typedef struct netio__gate {
    size_t refs, open, open_max, per_host;
    struct netio__host *hosts; // connections by address, if they are limited
    size_t host_count, host_cap;
    char *refusal;
    netio_cidr *trusted; // whose PROXY headers are believed; NULL: none are asked for
    size_t trusted_count;
    bool (*on_accept)(void *user, const netio_addr *peer);
    void (*on_refused)(void *user, const netio_addr *peer, const netio_error *why);
    void *user;
    netio_stats stats;
} netio__gate;

typedef struct netio__shape {
    size_t refs;
    netio__gate *gate; // NULL: dialed or adopted
    netio_filter filter;
    netio_framing framing;
    int timeout_ms[NETIO_TIMEOUT_CLOSE + 1]; // by NETIO_TIMEOUT_*; -1: never
    size_t drain_max, queue_max, high, low, read_rate, write_rate;
    bool read_always;
} netio__shape;

struct netio__chunk {
    netio__chunk *next;
    uint8_t *data;   // NULL: a file
    size_t off, len; // what waits lies from off to len
    size_t cap;      // room at `data`; 0: the user's bytes
    size_t plain;    // under filters: what the handler wrote that is gone with it
    uint64_t file_off, file_len;
    netio_file file;
    netio_task release;
    void *user;
};

typedef struct netio__rate {
    uint64_t at_us, ready_us; // tokens counted at; 0, or when reading or sending goes on
    size_t tokens;
} netio__rate;

typedef struct netio__dial netio__dial;
typedef struct netio__relay netio__relay;

struct netio__relay { // of one side
    struct netio__conn *peer;
    int pipe[2];    // on the way to the peer inside the kernel; -1: none
    size_t in_pipe; // bytes in it
    bool copies;    // the kernel cannot
};

typedef struct netio__cold {
    netio_error *error; // of a filter; NULL: made from the connection's fields when asked for
    netio__dial *dial;
    netio_filter_io *inner, *outer;   // filters: nearest to the handler, to the wire
    size_t plain;                     // written by the handler and not sent, with filters
    netio__chunk *later, *later_last; // not yet through the filters: one is not ready, or a file
    uint8_t *kept;                    // received and not taken
    size_t kept_off, kept_len, kept_cap;
    bool kept_raw;        // they are to pass the filters still
    netio__rate *rates;   // in, out; NULL: not limited so far
    uint64_t drained;     // while closing
    uint64_t deadline_us; // of a dial, to on_open
    netio__relay *relay;
    struct netio__framed *framed; // NULL: no framing
    netio_addr *peer;             // dialed to, or learnt when accepted; NULL: ask
    uint64_t host;                // in the gate's table; 0: not counted
    unsigned found;               // of an adopted socket
    char *name;                   // dialed host; NULL: none
    int unsent;                   // held by the OS, and as of which `progress`: netio__write_moves
    uint32_t unsent_since;
    bool unsent_asked;
} netio__cold;

typedef struct netio__conn {
    netio__node node; // 160 bytes in all, and 32 in the poller: the cost of an idle connection
    const netio_handler *handler;
    void *user;
    netio__shape *shape;
    netio__cold *cold;
    netio__chunk *out, *out_last;
    size_t queued; // bytes in it, files not counted
    uint64_t bytes_in, bytes_out, reads, writes, opened_us;
    uint32_t active, progress; // ticks (ms) of the last byte, of the last one sent
    uint32_t flags;
    int16_t err; // why it ended
    uint8_t state, stage;
    int32_t os_code;
    uint8_t timeout;
} netio__conn;

struct netio_filter_io {
    netio_filter_io *inner, *outer; // towards the handler, towards the wire
    netio__conn *c;
    const netio_filter_ops *ops;
    void *arg, *self;
    netio__chunk *held, *held_last; // written before it was ready
    uint64_t due_us;                // of its timer; NETIO__NEVER_US: none runs
    bool opened, ready, shut, failed;
};

static netio_handler netio__no_handler;     // all zero, never written
static netio_conn_opts netio__no_conn_opts; // all zero, never written
static netio_framing netio__no_framing;

static netio_conn netio__conn_handle(const netio__conn *c)
{
    netio_conn h;
    h.ptr = (void *)(uintptr_t)c;
    h.gen = c->node.gen;
    return h;
}

// For calls that act: NULL once it is closing.
static netio__conn *netio__conn_live(netio_conn h)
{
    netio__conn *c = (netio__conn *)(void *)netio__node_of(h.ptr, h.gen);
    if (!c || c->state > NETIO__OPEN || (c->flags & NETIO__CLOSE_ASKED)) return NULL;
    if (!c->node.loop->running) netio__loop_tick(c->node.loop); // a call from outside
    return c;
}

// For calls that ask: until on_close has returned.
static netio__conn *netio__conn_known(netio_conn h)
{
    netio__conn *c = (netio__conn *)(void *)netio__node_of(h.ptr, h.gen);
    return c && !(c->flags & NETIO__TOLD) ? c : NULL;
}

static netio__conn *netio__conn_of(netio__node *n) { return (netio__conn *)(void *)n; }

static uint32_t netio__tick(const netio_loop *loop) { return loop->tick; }

static netio__cold *netio__cold_of(netio__conn *c)
{
    if (c->cold) return c->cold;
    c->cold = (netio__cold *)NETIO_MALLOC(sizeof *c->cold);
    if (c->cold) memset(c->cold, 0, sizeof *c->cold);
    return c->cold;
}

// Keeps whom it is connected to, for when the socket cannot tell or could not any more.
static int netio__peer_keep(netio__conn *c, const netio_addr *peer)
{
    netio__cold *cold = netio__cold_of(c);
    if (peer->len == 0) return cold ? 0 : (int)NETIO_ENOMEM; // it has no name
    if (cold && !cold->peer) cold->peer = (netio_addr *)NETIO_MALLOC(sizeof *peer);
    if (!cold || !cold->peer) return NETIO_ENOMEM;
    *cold->peer = *peer;
    return 0;
}

static void netio__op(netio__conn *c, int op, ptrdiff_t result)
{
    netio_loop *loop = c->node.loop;
    if (loop->opts.on_op) loop->opts.on_op(loop->opts.user, op, netio__conn_handle(c), result);
}

// The usual case, of which the paths below make short work: open, and nothing special about it.
static bool netio__is_plain(const netio__conn *c)
{
    return c->state == NETIO__OPEN && !c->cold && !(c->flags & NETIO__SPECIAL);
}

// --- settings ----------------------------------------------------------------------------------

static int netio__or_default(int value, int otherwise) { return value ? value : otherwise; }

static size_t netio__size_or(size_t value, size_t otherwise) { return value ? value : otherwise; }

static void netio__filter_ref(netio_filter f)
{
    if (f.ops && f.ops->ref) f.ops->ref(f.arg);
}

static void netio__filter_unref(netio_filter f)
{
    if (f.ops && f.ops->unref) f.ops->unref(f.arg);
}

static void netio__gate_unref(netio__gate *gate)
{
    if (!gate || --gate->refs > 0) return;
    NETIO_FREE(gate->hosts);
    NETIO_FREE(gate->refusal);
    NETIO_FREE(gate->trusted);
    NETIO_FREE(gate);
}

static void netio__shape_unref(netio__shape *shape)
{
    if (!shape || --shape->refs > 0) return;
    netio__filter_unref(shape->filter);
    netio__gate_unref(shape->gate);
    NETIO_FREE(shape);
}

static bool netio__marks_ok(size_t high, size_t low, size_t max)
{
    return low <= high && high <= max;
}

static int netio__shape_make(netio__shape **out, const netio_conn_opts *o, netio__gate *gate)
{
    size_t max = netio__size_or(o->write_queue_max, 1024 * 1024);
    size_t high = netio__size_or(o->high_mark, max < 64 * 1024 ? max : 64 * 1024);
    size_t low = netio__size_or(o->low_mark, high / 4);
    if (!netio__marks_ok(high, low, max)) return NETIO_EINVAL;
    netio_decoder probe;
    int err = o->framing.format ? netio_decoder_init(&probe, o->framing, NULL, 0) : 0;
    if (err < 0) return err;
    netio__shape *shape = (netio__shape *)NETIO_MALLOC(sizeof *shape);
    if (!shape) return NETIO_ENOMEM;
    memset(shape, 0, sizeof *shape);
    shape->refs = 1;
    shape->gate = gate;
    if (gate) gate->refs++;
    shape->framing = o->framing;
    shape->filter = o->filter;
    netio__filter_ref(o->filter);
    shape->timeout_ms[NETIO_TIMEOUT_IDLE] = netio__or_default(o->idle_timeout_ms, -1);
    shape->timeout_ms[NETIO_TIMEOUT_WRITE] = netio__or_default(o->write_timeout_ms, 30000);
    shape->timeout_ms[NETIO_TIMEOUT_HANDSHAKE] = netio__or_default(o->handshake_timeout_ms, 10000);
    shape->timeout_ms[NETIO_TIMEOUT_CONNECT] = 30000;
    shape->timeout_ms[NETIO_TIMEOUT_CLOSE] = netio__or_default(o->close_timeout_ms, 2000);
    shape->drain_max = netio__size_or(o->close_drain_max, 1024 * 1024);
    shape->queue_max = max;
    shape->high = high;
    shape->low = low;
    shape->read_rate = o->read_rate;
    shape->write_rate = o->write_rate;
    shape->read_always = o->read_always;
    *out = shape;
    return 0;
}

// The connection's own, to be changed.
static netio__shape *netio__shape_own(netio__conn *c)
{
    if (c->shape->refs == 1) return c->shape;
    netio__shape *own = (netio__shape *)NETIO_MALLOC(sizeof *own);
    if (!own) return NULL;
    *own = *c->shape;
    own->refs = 1;
    if (own->gate) own->gate->refs++;
    netio__filter_ref(own->filter);
    c->shape->refs--;
    c->shape = own;
    return own;
}

// --- chunks: the write queue -------------------------------------------------------------------

#define NETIO__CHUNK_SMALL ((size_t)1024 - sizeof(netio__chunk))
#define NETIO__CHUNK_LARGE ((size_t)16 * 1024)
#define NETIO__POOL_SMALL 1024 // that are kept for reuse: 1 MiB of each size
#define NETIO__POOL_LARGE 64
#define NETIO__SPARE_MAX ((size_t)1024 * 1024)
#define NETIO__DIRECT ((size_t)16 * 1024) // writes from here on are tried from the caller's memory

static netio__chunk *netio__chunk_make(netio_loop *loop, size_t need)
{
    int kind = need <= NETIO__CHUNK_SMALL ? 0 : 1;
    size_t cap = kind == 0                    ? NETIO__CHUNK_SMALL
                 : need <= NETIO__CHUNK_LARGE ? NETIO__CHUNK_LARGE
                                              : need;
    netio__chunk *k = NULL;
    if (cap <= NETIO__CHUNK_LARGE && loop->pool[kind]) {
        k = loop->pool[kind];
        loop->pool[kind] = k->next;
        loop->pool_count[kind]--;
        cap = k->cap;
    } else if (cap > NETIO__CHUNK_LARGE && loop->spare && loop->spare->cap >= cap) {
        k = loop->spare;
        loop->spare = NULL;
        cap = k->cap;
    } else if (cap <= SIZE_MAX - sizeof *k) {
        k = (netio__chunk *)NETIO_MALLOC(sizeof *k + cap);
    }
    if (!k) return NULL;
    memset(k, 0, sizeof *k);
    k->data = (uint8_t *)(k + 1);
    k->cap = cap;
    return k;
}

// To the end of a queue, which is a first and a last chunk.
static void netio__chunk_append(netio__chunk **first, netio__chunk **last, netio__chunk *k)
{
    if (*first) (*last)->next = k;
    else *first = k;
    *last = k;
}

// Back into the pool. One that has a release function waits for the loop to run it first.
static void netio__chunk_drop(netio_loop *loop, netio__chunk *k)
{
    k->next = NULL;
    if (k->release) {
        netio__chunk_append(&loop->released, &loop->released_last, k);
        return;
    }
    int kind = k->cap == NETIO__CHUNK_SMALL ? 0 : 1;
    if ((kind == 0 && loop->pool_count[0] < NETIO__POOL_SMALL) ||
        (k->cap == NETIO__CHUNK_LARGE && loop->pool_count[1] < NETIO__POOL_LARGE)) {
        k->next = loop->pool[kind];
        loop->pool[kind] = k;
        loop->pool_count[kind]++;
    } else if (k->cap > NETIO__CHUNK_LARGE && k->cap <= NETIO__SPARE_MAX && !loop->spare) {
        loop->spare = k;
    } else {
        NETIO_FREE(k);
    }
}

static void netio__releases_run(netio_loop *loop)
{
    netio__chunk *k = loop->released;
    loop->released = loop->released_last = NULL;
    while (k) {
        netio__chunk *next = k->next;
        netio_task release = k->release;
        k->release = NULL;
        loop->calls++;
        release(k->user);
        NETIO_FREE(k);
        k = next;
    }
}

static void netio__chunks_free(netio__chunk *list)
{
    while (list) {
        netio__chunk *next = list->next;
        NETIO_FREE(list);
        list = next;
    }
}

static void netio__chunks_drop(netio_loop *loop, netio__chunk *list)
{
    while (list) {
        netio__chunk *next = list->next;
        netio__chunk_drop(loop, list);
        list = next;
    }
}

// Appends a copy whole, or nothing.
static int netio__chunks_put(netio_loop *loop, netio__chunk **first, netio__chunk **last,
                             const netio_buf *bufs, size_t count, size_t skip, size_t len)
{
    netio__chunk *tail = *first ? *last : NULL, *more = NULL;
    size_t room = tail && tail->cap ? tail->cap - tail->len : 0;
    if (len > room) {
        more = netio__chunk_make(loop, len - room);
        if (!more) return NETIO_ENOMEM;
        netio__chunk_append(first, last, more);
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = (const uint8_t *)bufs[i].data;
        size_t n = bufs[i].len, part;
        if (skip >= n) {
            skip -= n;
            continue;
        }
        p += skip;
        n -= skip;
        skip = 0;
        part = n < room ? n : room;
        if (part) memcpy(tail->data + tail->len, p, part);
        if (part) tail->len += part;
        room -= part;
        if (n > part) memcpy(more->data + more->len, p + part, n - part);
        if (n > part) more->len += n - part;
    }
    return 0;
}

// --- time --------------------------------------------------------------------------------------

static uint64_t netio__after(const netio__conn *c, uint32_t since, int timeout_ms)
{
    const netio_loop *loop = c->node.loop;
    uint32_t ago = netio__tick(loop) - since;
    return timeout_ms < 0 ? NETIO__NEVER_US
                          : loop->now_us - (uint64_t)ago * 1000u + (uint64_t)timeout_ms * 1000u;
}

static void netio__sooner_us(uint64_t *best, int *which, uint64_t us, int kind)
{
    if (us >= *best) return;
    *best = us;
    *which = kind;
}

// Whether the peer has still to take something.
static bool netio__owes(const netio__conn *c)
{
    const netio__relay *relay = c->cold ? c->cold->relay : NULL;
    return c->out || (relay && relay->peer->cold->relay->in_pipe);
}

static uint64_t netio__dial_deadline(const netio__conn *c);
static uint64_t netio__filter_due(const netio__conn *c);

// The earliest time at which something is due, and which NETIO_TIMEOUT_* it is; 0: none of them.
static bool netio__write_asked(const netio__conn *c)
{
    return c->cold && c->cold->unsent_asked && c->cold->unsent_since == c->progress;
}

// When half of it is over the OS is asked what it holds, and at its end again.
static int netio__write_patience(const netio__conn *c)
{
    int ms = c->shape->timeout_ms[NETIO_TIMEOUT_WRITE];
    if (c->state == NETIO__CLOSING && (ms < 0 || ms > 10000)) ms = 10000;
    return ms < 0 || netio__write_asked(c) ? ms : ms / 2;
}

static uint64_t netio__conn_deadline(const netio__conn *c, int *which)
{
    const int *limit = c->shape->timeout_ms;
    uint64_t best = NETIO__NEVER_US;
    *which = 0;
    if (c->state == NETIO__OVER) return best;
    if (c->state <= NETIO__OPENING) {
        if ((c->flags & NETIO__DIALED) && c->cold && c->cold->deadline_us)
            netio__sooner_us(&best, which, netio__dial_deadline(c), NETIO_TIMEOUT_CONNECT);
        else
            netio__sooner_us(
                &best, which,
                netio__after(c, (uint32_t)(c->opened_us / 1000u), limit[NETIO_TIMEOUT_HANDSHAKE]),
                NETIO_TIMEOUT_HANDSHAKE);
    }
    if (c->state == NETIO__OPEN && (c->flags & NETIO__CLOSE_ASKED))
        netio__sooner_us(&best, which, netio__after(c, c->progress, limit[NETIO_TIMEOUT_HANDSHAKE]),
                         NETIO_TIMEOUT_HANDSHAKE);
    else if (c->state == NETIO__OPEN && limit[NETIO_TIMEOUT_IDLE] > 0)
        netio__sooner_us(&best, which, netio__after(c, c->active, limit[NETIO_TIMEOUT_IDLE]),
                         NETIO_TIMEOUT_IDLE);
    bool stuck = (c->flags & (NETIO__BLOCKED | NETIO__LENT)) != 0;
    if (c->state == NETIO__CLOSING && !(c->flags & NETIO__WRITE_RATE)) stuck = true;
    if (stuck && (netio__owes(c) || (c->cold && c->cold->later)))
        netio__sooner_us(&best, which, netio__after(c, c->progress, netio__write_patience(c)),
                         NETIO_TIMEOUT_WRITE);
    // It could not send, and reading shall tell the end: see netio__send_failed.
    if (c->state == NETIO__DRAINING || (c->state == NETIO__OPEN && c->err))
        netio__sooner_us(&best, which, netio__after(c, c->progress, limit[NETIO_TIMEOUT_CLOSE]),
                         NETIO_TIMEOUT_CLOSE);
    if (c->cold) {
        if (c->flags & NETIO__READ_RATE)
            netio__sooner_us(&best, which, c->cold->rates[0].ready_us, 0);
        if (c->flags & NETIO__WRITE_RATE)
            netio__sooner_us(&best, which, c->cold->rates[1].ready_us, 0);
        if (c->cold->inner && c->state < NETIO__CLOSING)
            netio__sooner_us(&best, which, netio__filter_due(c), 0);
    }
    return best;
}

static void netio__conn_end(netio__conn *c, int err, int stage);

// Timers are lazy: one that runs already and fires too early finds out and is set again.
static void netio__conn_arm(netio__conn *c)
{
    int which;
    uint64_t due = netio__conn_deadline(c, &which);
    netio_loop *loop = c->node.loop;
    if (due == NETIO__NEVER_US) return;
    if (c->node.timer && loop->heap.items[c->node.timer - 1].us <= due) return;
    if (netio__timer_set(&c->node, due) < 0) netio__conn_end(c, NETIO_ENOMEM, NETIO_STAGE_NONE);
}

// --- ending ------------------------------------------------------------------------------------

static void netio__filter_explain(netio__conn *c);
static void netio__dial_stop(netio__conn *c, int err);

// It is over. on_close and all that follows come at the end of the turn.
static void netio__conn_end(netio__conn *c, int err, int stage)
{
    if (c->state == NETIO__OVER) return;
    if (c->err == 0) {
        c->os_code = err < 0 ? netio__os_error() : 0;
        c->err = (int16_t)err;
        c->stage = (uint8_t)stage;
    }
    // After the peer's own reset there is nobody to tell.
    if (err < 0 && err != NETIO_ECONNRESET && err != NETIO_EPIPE) c->flags |= NETIO__RESET;
    if (c->state == NETIO__DIALING) netio__dial_stop(c, NETIO_ECANCELED); // attempts, lookups
    c->state = NETIO__OVER;
    netio__timer_clear(&c->node);
    netio__work(&c->node);
}

static bool netio__dial_is_asking(const netio__conn *c);

static void netio__conn_timed_out(netio__conn *c, int which)
{
    static const uint8_t stages[] = {NETIO_STAGE_NONE,    NETIO_STAGE_READ,      NETIO_STAGE_WRITE,
                                     NETIO_STAGE_CONNECT, NETIO_STAGE_HANDSHAKE, NETIO_STAGE_CLOSE};
    int stage = stages[which];
    if (which == NETIO_TIMEOUT_CONNECT && c->state == NETIO__OPENING) stage = NETIO_STAGE_HANDSHAKE;
    else if (which == NETIO_TIMEOUT_CONNECT && netio__dial_is_asking(c))
        stage = NETIO_STAGE_RESOLVE;
    c->timeout = (uint8_t)which;
    netio__os_set_error(0);
    netio__conn_end(c, NETIO_ETIMEDOUT, stage);
}

static void netio__conn_count_end(netio__conn *c)
{
    netio_stats *to[2];
    to[0] = &c->node.loop->stats;
    to[1] = c->shape->gate ? &c->shape->gate->stats : NULL;
    for (int i = 0; i < 2 && to[i]; i++) {
        to[i]->closed += (c->flags & NETIO__HANDED) != 0;
        if (c->err == NETIO_ETIMEDOUT) to[i]->timeouts++;
        else if (c->err == NETIO_ECONNRESET || c->err == NETIO_EPIPE) to[i]->resets++;
        else if (c->err == NETIO_EMSGSIZE || c->err == NETIO_ENOBUFS) to[i]->limit_errors++;
        else if (c->err <= NETIO_EPROTO && c->err > NETIO_EIO) to[i]->protocol_errors++;
        else if (c->err < 0 && c->err != NETIO_ECANCELED) to[i]->other_errors++;
    }
}

static void netio__dial_free(netio__conn *c);
static void netio__filters_free(netio__conn *c);
static void netio__framed_free(netio__conn *c);
static void netio__relay_end(netio__conn *c);
static void netio__gate_leave(netio__conn *c);
static void netio__refused(netio__conn *c);
static void netio__listeners_feed(netio_loop *loop);

static void netio__cold_free(netio__conn *c)
{
    if (!c->cold) return;
    netio__dial_free(c);
    netio__filters_free(c);
    netio__framed_free(c);
    NETIO_FREE(c->cold->kept);
    NETIO_FREE(c->cold->error);
    NETIO_FREE(c->cold->name);
    NETIO_FREE(c->cold->peer);
    NETIO_FREE(c->cold->rates);
    NETIO_FREE(c->cold);
    c->cold = NULL;
}

static bool netio__has_end(const netio__conn *c)
{
    return !(c->flags & (NETIO__GONE | NETIO__CLOSED)) && c->node.io.socket != NETIO_INVALID_SOCKET;
}

static void netio__conn_shut_end(netio__conn *c)
{
    if (!netio__has_end(c)) {
        if (!(c->flags & NETIO__CLOSED)) c->flags |= NETIO__GONE;
        return;
    }
    c->flags |= NETIO__CLOSED;
    netio__op(c, NETIO_OP_CLOSE, c->err);
    netio__ops(&c->node)->close(&c->node, (c->flags & NETIO__RESET) != 0);
}

// The last word, and the end of the node when the engine is through with it.
static void netio__conn_over(netio__conn *c)
{
    netio_loop *loop = c->node.loop;
    if (!(c->flags & NETIO__TOLD)) {
        netio__filter_explain(c);
        netio__conn_count_end(c);
        if (c->cold && c->cold->relay) netio__relay_end(c);
        if (!(c->flags & NETIO__HANDED)) {
            netio__refused(c);
        } else if (c->handler->on_close) {
            loop->calls++;
            c->handler->on_close(netio__conn_handle(c), c->err);
        }
        c->flags |= NETIO__TOLD;
        netio__gate_leave(c);
        netio__conn_shut_end(c);
    }
    if (!(c->flags & NETIO__GONE)) return; // netio__closed comes
    netio__chunks_drop(loop, c->out);
    c->out = NULL;
    netio__cold_free(c);
    netio__shape_unref(c->shape);
    if (c->flags & NETIO__LINGERS) loop->lingering--;
    netio__node_free(&c->node);
    if (loop->starved) netio__listeners_feed(loop); // a descriptor is free
}

static void netio__conn_closed(netio__conn *c)
{
    c->flags |= NETIO__GONE;
    if (c->flags & NETIO__TOLD) netio__work(&c->node);
}

// --- the queue's level ---------------------------------------------------------------------------

static size_t netio__level(const netio__conn *c)
{
    return c->cold && c->cold->inner ? c->cold->plain : c->queued;
}

static void netio__level_rose(netio__conn *c)
{
    if (netio__level(c) > c->shape->high) c->flags |= NETIO__CONGESTED | NETIO__DRAIN_DUE;
}

static void netio__level_fell(netio__conn *c)
{
    size_t enough = c->flags & NETIO__DRAIN_EMPTY ? 0 : c->shape->low;
    if (!(c->flags & NETIO__DRAIN_DUE) || netio__level(c) > enough) return;
    c->flags &= ~(uint32_t)(NETIO__CONGESTED | NETIO__DRAIN_DUE | NETIO__DRAIN_EMPTY);
    c->flags |= NETIO__TELL_DRAIN;
    if (c->cold && c->cold->framed) c->flags |= NETIO__TELL_KEPT; // frames that wait
    netio__work(&c->node);
}

// --- rates: a bucket that holds 100 ms ----------------------------------------------------------

static size_t netio__rate_burst(size_t rate) { return rate / 10 ? rate / 10 : 1; }

static netio__rate *netio__rate_of(netio__conn *c, bool in)
{
    netio__cold *cold = netio__cold_of(c);
    if (!cold) return NULL;
    if (!cold->rates) {
        cold->rates = (netio__rate *)NETIO_MALLOC(2 * sizeof *cold->rates);
        if (!cold->rates) return NULL;
        memset(cold->rates, 0, 2 * sizeof *cold->rates);
    }
    return &cold->rates[in ? 0 : 1];
}

// Tokens now; if none, `ready_us` is when there will be half a bucket.
static size_t netio__rate_take(netio__rate *r, size_t rate, uint64_t now_us)
{
    size_t burst = netio__rate_burst(rate);
    uint64_t passed = r->at_us ? now_us - r->at_us : 1000000u;
    if (passed >= 1000000u) r->tokens = burst;
    uint64_t more = passed >= 1000000u ? 0 : passed * rate / 1000000u;
    if (more || passed >= 1000000u || !r->at_us) r->at_us = now_us;
    r->tokens = r->tokens + more < burst ? r->tokens + (size_t)more : burst;
    if (r->tokens == 0) r->ready_us = now_us + ((uint64_t)burst + 1) / 2 * 1000000u / rate + 1000u;
    return r->tokens;
}

static size_t netio__rate_room(netio__conn *c, bool in)
{
    size_t rate = in ? c->shape->read_rate : c->shape->write_rate;
    uint32_t flag = in ? (uint32_t)NETIO__READ_RATE : (uint32_t)NETIO__WRITE_RATE;
    if (!rate) return SIZE_MAX;
    netio__rate *r = netio__rate_of(c, in);
    if (!r) return SIZE_MAX; // rather fast than stuck
    size_t room = netio__rate_take(r, rate, c->node.loop->now_us);
    if (room == 0 && !(c->flags & flag)) {
        c->flags |= flag;
        netio__conn_arm(c);
    }
    return room;
}

static void netio__rate_spend(netio__conn *c, bool in, size_t n)
{
    if (!c->cold || !c->cold->rates || !(in ? c->shape->read_rate : c->shape->write_rate)) return;
    netio__rate *r = &c->cold->rates[in ? 0 : 1];
    r->tokens -= n < r->tokens ? n : r->tokens;
}

// --- sending -----------------------------------------------------------------------------------

static bool netio__may_send(const netio__conn *c)
{
    return c->state >= NETIO__OPENING && c->state <= NETIO__CLOSING &&
           !(c->flags & (NETIO__LENT | NETIO__BLOCKED | NETIO__WRITE_RATE | NETIO__FIN_SENT));
}

static void netio__sent_count(netio__conn *c, size_t n)
{
    netio_loop *loop = c->node.loop;
    c->bytes_out += n;
    c->writes++;
    loop->stats.bytes_out += n;
    loop->stats.writes++;
    c->active = c->progress = netio__tick(loop);
    netio__rate_spend(c, false, n);
}

// The first chunk of the queue is gone.
static void netio__out_drop(netio__conn *c)
{
    netio__chunk *k = c->out;
    c->out = k->next;
    if (k->plain) c->cold->plain -= k->plain;
    netio__chunk_drop(c->node.loop, k);
}

// So many bytes of the queue are gone.
static void netio__sent_some(netio__conn *c, size_t n)
{
    size_t left = n;
    netio__sent_count(c, n);
    c->queued -= n;
    while (c->out && c->out->data && left >= c->out->len - c->out->off) {
        left -= c->out->len - c->out->off;
        netio__out_drop(c);
        if (left == 0) break;
    }
    if (left) c->out->off += left;
}

static void netio__send_failed(netio__conn *c, int err)
{
    bool left = err == NETIO_EPIPE || err == NETIO_ECONNRESET;
    if (!left || c->state != NETIO__OPEN || (c->cold && c->cold->relay) ||
        (c->flags & (NETIO__WIRE_EOF | NETIO__PAUSED))) {
        netio__conn_end(c, err, NETIO_STAGE_WRITE);
        return;
    }
    // What the peer sent before it left lies in the socket still (an answer that came early):
    // nothing is sent any more, and reading tells the end.
    c->err = (int16_t)err;
    c->stage = NETIO_STAGE_WRITE;
    c->os_code = netio__os_error();
    c->flags |= NETIO__SHUT | NETIO__FIN_SENT;
    c->flags &= ~(uint32_t)(NETIO__BLOCKED | NETIO__CONGESTED | NETIO__DRAIN_DUE);
    netio__chunks_drop(c->node.loop, c->out);
    c->out = NULL;
    c->queued = 0;
    if (c->cold) {
        netio__chunks_drop(c->node.loop, c->cold->later);
        c->cold->later = NULL;
        c->cold->plain = 0;
    }
    c->progress = netio__tick(c->node.loop);
    netio__conn_arm(c);
    netio__work(&c->node);
}

// What `n`, a result of the engine, means for the connection. Whether to go on sending.
static bool netio__send_result(netio__conn *c, ptrdiff_t n)
{
    if (n != NETIO_EINPROGRESS) netio__op(c, NETIO_OP_SEND, n); // that is told when it is done
    if (n == NETIO_EAGAIN) {
        c->flags |= NETIO__BLOCKED;
        netio__conn_arm(c);
    } else if (n == NETIO_EINPROGRESS) {
        c->flags |= NETIO__LENT;
        netio__conn_arm(c);
    } else if (n < 0) {
        netio__send_failed(c, (int)n);
    }
    return n >= 0;
}

static ptrdiff_t netio__send_chunks(netio__conn *c, size_t room, size_t *want)
{
    netio_buf bufs[64];
    size_t count = 0, total = 0;
    for (netio__chunk *k = c->out; k && k->data && count < 64 && total < room; k = k->next) {
        size_t n = k->len - k->off;
        if (n > room - total) n = room - total;
        bufs[count].data = k->data + k->off;
        bufs[count++].len = n;
        total += n;
    }
    *want = total;
    return netio__ops(&c->node)->send(&c->node, bufs, count, true);
}

// A piece of the file at the queue's head. Whether to go on.
static bool netio__send_file_piece(netio__conn *c, size_t room)
{
    netio__chunk *k = c->out;
    netio_loop *loop = c->node.loop;
    uint64_t want = k->file_len < room ? k->file_len : room;
    if (want > loop->opts.turn_budget) want = loop->opts.turn_budget;
    ptrdiff_t n = want ? netio__ops(&c->node)->send_file(&c->node, k->file, k->file_off, want) : 0;
    if (n == NETIO_ENOTSUP) { // through memory: 16 KiB become a chunk before it
        netio__chunk *piece = netio__chunk_make(loop, NETIO__CHUNK_LARGE);
        if (!piece) {
            netio__conn_end(c, NETIO_ENOMEM, NETIO_STAGE_WRITE);
            return false;
        }
        size_t cap = piece->cap < want ? piece->cap : (size_t)want;
        n = netio__os_read_file(k->file, piece->data, cap, k->file_off);
        if (n <= 0) {
            netio__chunk_drop(loop, piece);
            netio__conn_end(c, n < 0 ? (int)n : (int)NETIO_ETRUNCATED, NETIO_STAGE_WRITE);
            return false;
        }
        piece->len = (size_t)n;
        piece->next = k;
        c->out = piece;
        c->queued += (size_t)n;
    } else if (!netio__send_result(c, n)) {
        return false;
    } else {
        netio__sent_count(c, (size_t)n);
    }
    k->file_off += (size_t)n;
    k->file_len -= (size_t)n;
    if (k->file_len == 0 && c->out == k) netio__out_drop(c);
    return true;
}

static void netio__send_fin(netio__conn *c);
static void netio__pump(netio__conn *c);
static void netio__relay_push(netio__conn *c);
static bool netio__filters_ready(const netio__conn *c);

static void netio__send_queue(netio__conn *c, uint64_t until)
{
    while (c->out && netio__may_send(c)) {
        size_t want, room = netio__rate_room(c, false);
        if (room == 0) break;
        if (c->bytes_out >= until) { // others wait, too: the engine says when to go on
            c->flags |= NETIO__BLOCKED;
            netio__conn_arm(c);
            break;
        }
        if (!c->out->data) {
            if (c->out->file_len == 0)
                netio__out_drop(c); // all of it was put before, or it was empty
            else if (!netio__send_file_piece(c, room)) break;
            continue;
        }
        ptrdiff_t n = netio__send_chunks(c, room, &want);
        if (!netio__send_result(c, n)) break;
        netio__sent_some(c, (size_t)n);
        if ((size_t)n < want) {
            c->flags |= NETIO__BLOCKED;
            netio__conn_arm(c);
        }
    }
}

static bool netio__more_later(const netio__conn *c)
{
    return c->cold && c->cold->later && !c->out && c->state < NETIO__DRAINING &&
           c->state >= NETIO__OPEN && netio__filters_ready(c);
}

// One chunk of a plain connection, which usually goes whole. Whether that was all there was to do.
static bool netio__flush_plain(netio__conn *c)
{
    netio__chunk *k = c->out;
    netio_buf buf;
    if (!k) return true;
    if (k->next || !k->data) return false;
    buf.data = k->data + k->off;
    buf.len = k->len - k->off;
    ptrdiff_t n = netio__ops(&c->node)->send(&c->node, &buf, 1, true);
    if (n == (ptrdiff_t)buf.len) {
        netio__op(c, NETIO_OP_SEND, n);
        netio__sent_count(c, (size_t)n);
        c->queued = 0;
        c->out = NULL;
        netio__chunk_drop(c->node.loop, k);
        return true;
    }
    if (netio__send_result(c, n)) {
        netio__sent_some(c, (size_t)n);
        c->flags |= NETIO__BLOCKED;
        netio__conn_arm(c);
    }
    return false;
}

// Sends what it can of the queue, then what follows the queue.
static void netio__conn_flush(netio__conn *c)
{
    if (netio__is_plain(c) && netio__flush_plain(c)) return;
    uint64_t until = c->bytes_out + c->node.loop->opts.turn_budget;
    do {
        netio__pump(c);
        if (c->cold && c->cold->relay) netio__relay_push(c->cold->relay->peer);
        netio__send_queue(c, until);
    } while (netio__more_later(c));
    if (c->state != NETIO__OVER) netio__level_fell(c);
    if (!netio__owes(c) && !(c->cold && c->cold->later)) netio__send_fin(c);
}

static void netio__sent(netio__node *node, ptrdiff_t n)
{
    netio__conn *c = netio__conn_of(node);
    c->flags &= ~(uint32_t)NETIO__LENT;
    if (c->state == NETIO__OVER) return;
    if (n < 0) {
        netio__op(c, NETIO_OP_SEND, n);
        netio__send_failed(c, (int)n);
        return;
    }
    if (n > 0) {
        netio__op(c, NETIO_OP_SEND, n);
        netio__sent_some(c, (size_t)n);
    }
    netio__work(node);
}

static void netio__conn_writable(netio__conn *c)
{
    c->flags &= ~(uint32_t)NETIO__BLOCKED;
    netio__conn_flush(c);
    netio__work(&c->node);
}

// --- closing -----------------------------------------------------------------------------------

static void netio__filters_shutdown(netio__conn *c);
static bool netio__filters_say_end(const netio__conn *c);

// After the queue: FIN if the handler is through, and the end if the peer is, too.
static void netio__send_fin(netio__conn *c)
{
    bool closing = c->state == NETIO__CLOSING, filtered = netio__filters_say_end(c);
    if (c->state != NETIO__OPEN && !closing) return;
    if (closing && (c->flags & NETIO__WIRE_EOF)) {
        netio__conn_end(c, 0, NETIO_STAGE_NONE); // nothing is unread: closing is the FIN
        return;
    }
    if (!closing && (!(c->flags & NETIO__SHUT) || filtered)) return;
    if (!(c->flags & NETIO__FIN_SENT)) {
        int err = netio__ops(&c->node)->shutdown(&c->node);
        netio__op(c, NETIO_OP_SHUTDOWN, err);
        c->flags |= NETIO__FIN_SENT;
        if (err < 0) { // reset meanwhile
            netio__conn_end(c, err, NETIO_STAGE_CLOSE);
            return;
        }
    }
    if (closing) {
        c->state = NETIO__DRAINING;
        c->progress = netio__tick(c->node.loop);
        netio__conn_arm(c);
        netio__work(&c->node);
    }
}

// A connection that closes is remembered, oldest first, to be reset when there are too many.
static void netio__closing_add(netio__conn *c)
{
    netio_loop *loop = c->node.loop;
    void *list = loop->closing;
    while (loop->closing_count && !netio__node_of(loop->closing[loop->closing_first].ptr,
                                                  loop->closing[loop->closing_first].gen)) {
        loop->closing_first++;
        loop->closing_count--;
    }
    if (loop->closing_first > 64 && loop->closing_first > loop->closing_count) {
        memmove(loop->closing, loop->closing + loop->closing_first,
                loop->closing_count * sizeof *loop->closing);
        loop->closing_first = 0;
    }
    size_t need = loop->closing_first + loop->closing_count + 1;
    if (netio__array_grow(&list, &loop->closing_cap, need, sizeof *loop->closing) < 0) return;
    loop->closing = (netio_conn *)list;
    loop->closing[loop->closing_first + loop->closing_count++] = netio__conn_handle(c);
}

// Resets the oldest connection that is closing, of the gate (NULL: of any). Whether there was one.
static bool netio__closing_reset(netio_loop *loop, const netio__gate *gate)
{
    for (size_t i = 0; i < loop->closing_count; i++) {
        netio_conn h = loop->closing[loop->closing_first + i];
        netio__conn *c = netio__conn_of(netio__node_of(h.ptr, h.gen));
        if (!c || (c->state != NETIO__CLOSING && c->state != NETIO__DRAINING)) continue;
        // A refused one that lingers is not counted: it would make no room.
        if (gate && (c->shape->gate != gate || !(c->flags & NETIO__LIMITED))) continue;
        c->timeout = NETIO_TIMEOUT_CLOSE;
        netio__conn_end(c, NETIO_ETIMEDOUT, NETIO_STAGE_CLOSE);
        netio__gate_leave(c);
        netio__conn_shut_end(c);
        return true;
    }
    return false;
}

static void netio__kept_free(netio__conn *c)
{
    if (!c->cold) return;
    NETIO_FREE(c->cold->kept);
    c->cold->kept = NULL;
    c->cold->kept_off = c->cold->kept_len = c->cold->kept_cap = 0;
}

// From open, or from opening when there is no handler to wait for.
static void netio__conn_close_start(netio__conn *c)
{
    c->flags &= ~(uint32_t)(NETIO__PAUSED | NETIO__TELL_KEPT | NETIO__TELL_DRAIN |
                            NETIO__TELL_OPEN | NETIO__TELL_SECURE);
    c->flags |= NETIO__SHUT;
    c->state = NETIO__CLOSING;
    netio__filters_shutdown(c);
    if (c->state == NETIO__OVER) return;
    c->progress = netio__tick(c->node.loop);
    netio__kept_free(c);
    netio__closing_add(c);
    netio__work(&c->node);
    netio__conn_arm(c);
}

// It failed, but what is queued (a filter's alert) shall still go out.
static void netio__conn_fail(netio__conn *c, int err, int stage)
{
    if (c->state >= NETIO__CLOSING) return;
    c->err = (int16_t)err;
    c->stage = (uint8_t)stage;
    c->os_code = netio__os_error();
    if (c->cold) {
        netio__chunks_drop(c->node.loop, c->cold->later);
        c->cold->later = NULL;
    }
    netio__conn_close_start(c);
}

static bool netio__nothing_written(const netio__conn *c)
{
    return !netio__owes(c) && !(c->cold && (c->cold->plain || c->cold->later));
}

NETIO_API int netio_conn_close(netio_conn h)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    bool shaking = c->cold && c->cold->later && !netio__filters_ready(c);
    if (c->state == NETIO__OPEN && !shaking) {
        netio__conn_close_start(c);
    } else if (netio__nothing_written(c)) {
        netio__conn_end(c, NETIO_ECANCELED, NETIO_STAGE_NONE);
    } else { // what was written goes out first
        c->flags &= ~(uint32_t)(NETIO__PAUSED | NETIO__TELL_OPEN | NETIO__TELL_SECURE);
        c->flags |= NETIO__CLOSE_ASKED;
        c->progress = netio__tick(c->node.loop);
        netio__conn_arm(c);
        netio__work(&c->node);
    }
    return 0;
}

NETIO_API int netio_conn_abort(netio_conn h)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    netio_addr peer; // which on_close may want to know
    if (c->handler->on_close && netio__has_end(c) && !(c->cold && c->cold->peer) &&
        netio__ops(&c->node)->name(&c->node, &peer, true) == 0)
        netio__peer_keep(c, &peer);
    netio__os_set_error(0);
    netio__conn_end(c, NETIO_ECONNABORTED, NETIO_STAGE_NONE);
    netio__dial_free(c);
    netio__conn_shut_end(c); // on_close comes at the end of the turn
    return 0;
}

NETIO_API int netio_conn_shutdown(netio_conn h)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    if (c->flags & NETIO__SHUT) return 0;
    c->flags |= NETIO__SHUT;
    netio__filters_shutdown(c);
    netio__work(&c->node);
    return 0;
}

// --- receiving ---------------------------------------------------------------------------------

static bool netio__told_open(const netio__conn *c)
{
    return c->state == NETIO__OPEN && !(c->flags & NETIO__TELL_OPEN);
}

static size_t netio__kept_len(const netio__conn *c) { return c->cold ? c->cold->kept_len : 0; }

static size_t netio__drain_room(const netio__conn *c)
{
    uint64_t drained = c->cold ? c->cold->drained : 0;
    return drained < c->shape->drain_max ? (size_t)(c->shape->drain_max - drained) : 0;
}

static size_t netio__udp_appetite(const netio__node *node);

static size_t netio__appetite(const netio__node *node)
{
    if (node->kind == NETIO__UDP) return netio__udp_appetite(node);
    netio__conn *c = (netio__conn *)(void *)(uintptr_t)node;
    size_t room = c->node.loop->opts.recv_buffer;
    if (netio__is_plain(c)) return room;
    if (c->flags & (NETIO__WIRE_EOF | NETIO__READ_RATE)) return 0;
    if (c->state == NETIO__DIALING || c->state == NETIO__OVER) return 0;
    if (c->state == NETIO__CLOSING) return netio__drain_room(c) ? room : 0;
    if (c->state == NETIO__DRAINING) return room;
    if (c->state == NETIO__OPEN && (c->flags & NETIO__PAUSED)) return 0;
    bool shaking = c->cold && c->cold->inner && !netio__filters_ready(c); // its answer is needed
    if ((c->flags & NETIO__CONGESTED) && !shaking && !c->shape->read_always &&
        !(c->cold && c->cold->relay))
        return 0;
    if (c->cold && c->cold->kept_len) {
        if (c->cold->kept_len >= room) return 0;
        room -= c->cold->kept_len;
    }
    if (c->shape->read_rate) {
        size_t tokens = netio__rate_room(c, true);
        if (tokens < room) room = tokens;
    }
    return room;
}

// Behind the bytes that are kept already.
static int netio__keep(netio__conn *c, const void *data, size_t len)
{
    netio__cold *cold = netio__cold_of(c);
    if (!cold) return NETIO_ENOMEM;
    size_t max = 4 * c->node.loop->opts.recv_buffer;
    if (len > max || cold->kept_len > max - len) return NETIO_ENOBUFS;
    if (cold->kept_off && cold->kept_off + cold->kept_len + len > cold->kept_cap) {
        memmove(cold->kept, cold->kept + cold->kept_off, cold->kept_len);
        cold->kept_off = 0;
    }
    void *kept = cold->kept;
    size_t need = cold->kept_off + cold->kept_len + len;
    if (need > cold->kept_cap && need < 2 * cold->kept_cap) need = 2 * cold->kept_cap;
    if (netio__array_grow(&kept, &cold->kept_cap, need, 1) < 0) return NETIO_ENOMEM;
    cold->kept = (uint8_t *)kept;
    memcpy(cold->kept + cold->kept_off + cold->kept_len, data, len);
    cold->kept_len += len;
    return 0;
}

static void netio__relay_data(netio__conn *c, const void *data, size_t len);
static void netio__frames(netio__conn *c, const void *data, size_t len);
static bool netio__frames_end(netio__conn *c);
static bool netio__frames_wait(const netio__conn *c);
static int netio__frames_restart(netio__conn *c);

// Runs on_data; `kept` of the last bytes were not taken.
static size_t netio__lend(netio__conn *c, const void *data, size_t len)
{
    netio_loop *loop = c->node.loop;
    if (c->cold && c->cold->relay) {
        netio__relay_data(c, data, len);
        return 0;
    }
    if (c->cold && c->cold->framed) {
        netio__frames(c, data, len);
        return 0;
    }
    if (!c->handler->on_data) return 0;
    bool unfiltered = !c->cold || !c->cold->outer;
    loop->lending = &c->node;
    loop->lent_by = c->cold ? c->cold->outer : NULL;
    loop->lent_data = (const uint8_t *)data;
    loop->lent = len;
    loop->kept = 0;
    loop->calls++;
    c->handler->on_data(netio__conn_handle(c), data, len);
    loop->lending = NULL;
    if (loop->kept && unfiltered && c->cold && c->cold->outer) { // put on meanwhile: they pass it
        c->cold->kept_raw = true;
        c->flags |= NETIO__TELL_KEPT;
    }
    if (loop->kept && c->cold->framed) c->flags |= NETIO__TELL_KEPT; // read as frames from now on
    return loop->kept;
}

static void netio__tell_open(netio__conn *c)
{
    c->flags &= ~(uint32_t)NETIO__TELL_OPEN;
    c->flags |= NETIO__HANDED; // from here on the user knows of one that was accepted
    c->node.loop->stats.opened++;
    if (c->shape->gate) c->shape->gate->stats.opened++;
    if (!c->handler->on_open) return;
    c->node.loop->calls++;
    c->handler->on_open(netio__conn_handle(c));
}

static void netio__tell_secure(netio__conn *c)
{
    c->flags &= ~(uint32_t)NETIO__TELL_SECURE;
    if (!c->handler->on_secure) return;
    c->node.loop->calls++;
    c->handler->on_secure(netio__conn_handle(c));
}

// Bytes kept before, and these, as one piece.
static void netio__hand_kept(netio__conn *c)
{
    netio__cold *cold = c->cold;
    uint8_t *kept = cold->kept;
    size_t off = cold->kept_off, len = cold->kept_len, cap = cold->kept_cap;
    cold->kept = NULL; // lent: whatever the handler does, these bytes stay
    cold->kept_off = cold->kept_len = cold->kept_cap = 0;
    size_t left = netio__lend(c, kept + off, len);
    if (left && c->state == NETIO__OPEN && c->cold && !c->cold->kept) {
        c->cold->kept = kept;
        c->cold->kept_off = off + len - left;
        c->cold->kept_len = left;
        c->cold->kept_cap = cap;
    } else {
        NETIO_FREE(kept);
    }
}

// Plain bytes for the handler; kept while it does not read.
static int netio__hand(netio__conn *c, const void *data, size_t len)
{
    if (c->state >= NETIO__CLOSING || (c->flags & NETIO__CLOSE_ASKED) || len == 0) return 0;
    if (c->state == NETIO__OPEN && (c->flags & NETIO__TELL_OPEN)) netio__tell_open(c);
    if (c->state == NETIO__OPEN && (c->flags & NETIO__TELL_SECURE)) netio__tell_secure(c);
    if (c->state >= NETIO__CLOSING) return 0;
    bool wait = !netio__told_open(c) || (c->flags & NETIO__PAUSED);
    if (wait || netio__kept_len(c)) {
        int err = netio__keep(c, data, len);
        if (err < 0 || wait) return err;
        netio__hand_kept(c);
        return 0;
    }
    size_t left = netio__lend(c, data, len);
    if (left == 0 || c->state != NETIO__OPEN) return 0;
    return netio__keep(c, (const uint8_t *)data + len - left, left);
}

static int netio__filter_take(netio_filter_io *io, const void *data, size_t len);
static int netio__filter_take_end(netio_filter_io *io);

static void netio__drain(netio__conn *c, size_t len)
{
    netio__cold *cold = netio__cold_of(c);
    if (cold) cold->drained += len;
    if (cold && cold->drained <= c->shape->drain_max) return;
    if (c->state == NETIO__DRAINING) netio__conn_timed_out(c, NETIO_TIMEOUT_CLOSE);
    else netio__work(&c->node); // reads no more until the queue is gone
}

static void netio__tell_kept(netio__conn *c);

static void netio__received_count(netio__conn *c, size_t len)
{
    netio_loop *loop = c->node.loop;
    c->bytes_in += len;
    c->reads++;
    loop->stats.bytes_in += len;
    loop->stats.reads++;
    c->active = netio__tick(loop);
    netio__op(c, NETIO_OP_RECV, (ptrdiff_t)len);
}

static void netio__received(netio__node *node, const void *data, size_t len)
{
    netio__conn *c = netio__conn_of(node);
    if (c->state == NETIO__OVER) return;
    netio__received_count(c, len);
    if (netio__is_plain(c)) {
        size_t left = netio__lend(c, data, len);
        if (left == 0 || c->state != NETIO__OPEN) return; // what changed put it into the work list
        if (netio__keep(c, (const uint8_t *)data + len - left, left) < 0)
            netio__conn_fail(c, NETIO_ENOMEM, NETIO_STAGE_READ);
        netio__work(node); // it may be full now
        return;
    }
    if (c->state >= NETIO__CLOSING) {
        netio__drain(c, len);
        return;
    }
    if (c->shape->read_rate) netio__rate_spend(c, true, len);
    if (c->cold && c->cold->kept_raw) netio__tell_kept(c); // they come before these
    int err = c->cold && c->cold->outer ? netio__filter_take(c->cold->outer, data, len)
                                        : netio__hand(c, data, len);
    if (err < 0) netio__conn_fail(c, err, NETIO_STAGE_READ);
    // What may have changed while the handler ran is settled at the end of the turn.
    if (node->gen && netio__appetite(node) == 0) netio__work(node);
}

// The handler's end of stream. Absent on_eof closes.
static void netio__tell_eof(netio__conn *c)
{
    c->flags |= NETIO__EOF_TOLD;
    if (c->cold && c->cold->relay) {
        netio__relay_data(c, NULL, 0);
    } else if (c->handler->on_eof) {
        c->node.loop->calls++;
        c->handler->on_eof(netio__conn_handle(c));
    } else {
        netio__conn_close_start(c);
    }
}

static int netio__hand_end(netio__conn *c)
{
    if (c->state == NETIO__OPENING) return NETIO_ETRUNCATED; // in the middle of a handshake
    c->flags |= NETIO__EOF;
    netio__work(&c->node);
    return 0;
}

static void netio__ended(netio__node *node)
{
    netio__conn *c = netio__conn_of(node);
    if (c->state == NETIO__OVER || (c->flags & NETIO__WIRE_EOF)) return;
    c->flags |= NETIO__WIRE_EOF;
    netio__work(node);
    netio__op(c, NETIO_OP_RECV, NETIO_EOF);
    if (c->state == NETIO__DRAINING) {
        netio__conn_end(c, 0, NETIO_STAGE_NONE);
        return;
    }
    if (c->state == NETIO__CLOSING || (c->flags & NETIO__EOF)) return;
    if (c->cold && c->cold->kept_raw) netio__tell_kept(c);            // they come before the end
    if (c->state == NETIO__OPEN && (c->flags & NETIO__CLOSE_ASKED)) { // the handshake cannot end
        netio__conn_end(c, NETIO_EPIPE, NETIO_STAGE_HANDSHAKE);
        return;
    }
    int err =
        c->cold && c->cold->outer ? netio__filter_take_end(c->cold->outer) : netio__hand_end(c);
    if (err < 0) netio__conn_fail(c, err, NETIO_STAGE_READ);
    else if (c->state == NETIO__OPENING && !netio__filters_ready(c) &&
             netio__filter_due(c) == NETIO__NEVER_US) // nothing can come any more
        netio__conn_end(c, NETIO_ETRUNCATED, NETIO_STAGE_HANDSHAKE);
}

static void netio__failed(netio__node *node, int err)
{
    netio__conn *c = netio__conn_of(node);
    netio__op(c, NETIO_OP_RECV, err);
    // The peer closed or reset what nobody reads any more: it had all that it wanted.
    netio__conn_end(c, err, c->state < NETIO__CLOSING ? NETIO_STAGE_READ : NETIO_STAGE_CLOSE);
}

NETIO_API int netio_conn_unread(netio_conn h, size_t len)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    netio_loop *loop = c->node.loop;
    if (loop->lending != &c->node || len > loop->lent) return NETIO_EINVAL;
    if (len > loop->opts.recv_buffer) return NETIO_ENOBUFS;
    if (!netio__cold_of(c)) return NETIO_ENOMEM;
    const netio_filter_io *outer = c->cold->outer; // put on in this on_data: see from_clean
    if (len && outer && outer != loop->lent_by && outer->ops->from_clean) return NETIO_EPROTO;
    loop->kept = len;
    return 0;
}

// Reading goes on, first with what was kept.
static void netio__conn_go_on(netio__conn *c)
{
    c->flags &= ~(uint32_t)NETIO__PAUSED;
    c->flags |= NETIO__TELL_KEPT;
    netio__work(&c->node);
}

NETIO_API int netio_conn_pause(netio_conn h)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    if (!(c->flags & NETIO__PAUSED)) netio__work(&c->node);
    c->flags |= NETIO__PAUSED;
    return 0;
}

NETIO_API int netio_conn_resume(netio_conn h)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    netio__conn_go_on(c);
    return 0;
}

// --- filters -----------------------------------------------------------------------------------

static bool netio__filters_ready(const netio__conn *c)
{
    for (const netio_filter_io *io = c->cold->inner; io; io = io->outer)
        if (!io->ready) return false;
    return true;
}

// Whether one of them has an end of stream of its own, which stands for FIN.
static bool netio__filters_say_end(const netio__conn *c)
{
    const netio_filter_io *io = c->cold ? c->cold->inner : NULL;
    while (io && io->ready && !io->ops->shutdown) io = io->outer;
    return io != NULL;
}

static uint64_t netio__filter_due(const netio__conn *c)
{
    uint64_t best = NETIO__NEVER_US;
    for (const netio_filter_io *io = c->cold->inner; io; io = io->outer)
        if (io->due_us < best) best = io->due_us;
    return best;
}

// A filter that refuses ends the connection; its last words go out first.
static int netio__filter_result(netio_filter_io *io, int err)
{
    netio__conn *c = io->c;
    if (err >= 0 || io->failed || c->state >= NETIO__CLOSING) return err;
    io->failed = true;
    netio__conn_fail(c, err, c->state < NETIO__OPEN ? NETIO_STAGE_HANDSHAKE : NETIO_STAGE_READ);
    return err;
}

static int netio__filter_take(netio_filter_io *io, const void *data, size_t len)
{
    if (io->c->state >= NETIO__CLOSING) return NETIO_ECANCELED;
    if (!io->ops->received) return netio_filter_deliver(io, data, len);
    return netio__filter_result(io, io->ops->received(io, data, len));
}

static int netio__filter_take_end(netio_filter_io *io)
{
    if (io->c->state >= NETIO__CLOSING) return NETIO_ECANCELED;
    if (!io->ops->ended) return netio_filter_deliver_end(io);
    return netio__filter_result(io, io->ops->ended(io));
}

NETIO_API int netio_filter_deliver(netio_filter_io *io, const void *data, size_t len)
{
    if (io->c->state >= NETIO__CLOSING) return NETIO_ECANCELED;
    if (len == 0) return 0;
    return io->inner ? netio__filter_take(io->inner, data, len) : netio__hand(io->c, data, len);
}

NETIO_API int netio_filter_deliver_end(netio_filter_io *io)
{
    if (io->c->state >= NETIO__CLOSING) return NETIO_ECANCELED;
    return io->inner ? netio__filter_take_end(io->inner) : netio__hand_end(io->c);
}

// Onto the wire's queue.
static int netio__wire_put(netio__conn *c, const netio_buf *bufs, size_t count, size_t skip,
                           size_t len)
{
    if (c->flags & NETIO__FIN_SENT) return 0; // nobody takes it
    int err = netio__chunks_put(c->node.loop, &c->out, &c->out_last, bufs, count, skip, len);
    if (err < 0) return err;
    if (c->queued == 0) c->progress = netio__tick(c->node.loop);
    c->queued += len;
    netio__work(&c->node);
    return 0;
}

static size_t netio__bufs_len(const netio_buf *bufs, size_t count)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        if ((bufs[i].len && !bufs[i].data) || bufs[i].len > SIZE_MAX / 4 - len) return SIZE_MAX;
        len += bufs[i].len;
    }
    return len;
}

// Towards the wire, into this filter; NULL: past the last.
static int netio__filter_put(netio__conn *c, netio_filter_io *io, const netio_buf *bufs,
                             size_t count)
{
    size_t len = netio__bufs_len(bufs, count);
    if (len == 0) return 0;
    if (!io) return netio__wire_put(c, bufs, count, 0, len);
    if (!io->ready)
        return netio__chunks_put(c->node.loop, &io->held, &io->held_last, bufs, count, 0, len);
    if (!io->ops->written) return netio__filter_put(c, io->outer, bufs, count);
    return netio__filter_result(io, io->ops->written(io, bufs, count));
}

NETIO_API int netio_filter_emit(netio_filter_io *io, const void *data, size_t len)
{
    netio_buf buf;
    buf.data = data;
    buf.len = len;
    return netio__filter_put(io->c, io->outer, &buf, 1);
}

// From the handler, with all filters ready. What it wrote is gone when the chunk that is the
// queue's last now is.
static int netio__filter_write(netio__conn *c, const netio_buf *bufs, size_t count, size_t len)
{
    int err = netio__filter_put(c, c->cold->inner, bufs, count);
    if (err < 0 || !c->out) return err;
    c->out_last->plain += len;
    c->cold->plain += len;
    return 0;
}

static int netio__filter_unhold(netio_filter_io *io)
{
    int err = 0;
    while (io->held && err == 0) {
        netio__chunk *k = io->held;
        netio_buf buf;
        buf.data = k->data + k->off;
        buf.len = k->len - k->off;
        io->held = k->next;
        err = netio__filter_put(io->c, io, &buf, 1);
        netio__chunk_drop(io->c->node.loop, k);
    }
    return err;
}

// A piece of the file that waits before the filters.
static int netio__pump_file(netio__conn *c, netio__chunk *k)
{
    netio_loop *loop = c->node.loop;
    netio_buf buf;
    if (k->file_len == 0) return 0;
    netio__chunk *piece = netio__chunk_make(loop, NETIO__CHUNK_LARGE);
    if (!piece) return NETIO_ENOMEM;
    size_t cap = k->file_len < piece->cap ? (size_t)k->file_len : piece->cap;
    ptrdiff_t n = netio__os_read_file(k->file, piece->data, cap, k->file_off);
    int err = n < 0 ? (int)n : n == 0 ? (int)NETIO_ETRUNCATED : 0;
    if (err == 0) {
        buf.data = piece->data;
        buf.len = (size_t)n;
        k->file_off += buf.len;
        k->file_len -= buf.len;
        err = netio__filter_write(c, &buf, 1, buf.len);
    }
    netio__chunk_drop(loop, piece);
    return err;
}

// What waits before the filters goes through them, as much as possible in one call.
static int netio__pump_some(netio__conn *c)
{
    netio__cold *cold = c->cold;
    netio__chunk *k = cold->later, *gone = k;
    netio_buf bufs[64];
    size_t count = 0, len = 0;
    int err = 0;
    if (!k->data) {
        err = netio__pump_file(c, k);
        if (err < 0 || k->file_len) return err; // a filter that fails has dropped the list
        k = k->next;
    }
    for (; k && k->data && count < 64 && gone->data; k = k->next) {
        bufs[count].data = k->data + k->off;
        bufs[count].len = k->len - k->off;
        len += bufs[count++].len;
    }
    cold->later = k;
    cold->plain -= len;
    if (len) err = netio__filter_write(c, bufs, count, len);
    while (gone != k) {
        netio__chunk *next = gone->next;
        netio__chunk_drop(c->node.loop, gone);
        gone = next;
    }
    return err;
}

static void netio__filters_shutdown(netio__conn *c)
{
    netio_filter_io *io = c->cold ? c->cold->inner : NULL;
    if (!io || c->cold->later || !netio__filters_ready(c)) return; // netio__pump comes back to it
    for (; io && c->state < NETIO__DRAINING; io = io->outer) {
        if (io->shut || io->failed) continue;
        io->shut = true;
        if (io->ops->shutdown) netio__filter_result(io, io->ops->shutdown(io));
    }
}

// Through the filters, as long as the queue behind them is short.
static void netio__pump(netio__conn *c)
{
    netio__cold *cold = c->cold;
    if (!cold || !cold->inner || c->state < NETIO__OPEN || !netio__filters_ready(c)) return;
    while (cold->later && c->state < NETIO__DRAINING && c->queued <= c->shape->high) {
        int err = netio__pump_some(c);
        if (err < 0) netio__conn_end(c, err, NETIO_STAGE_WRITE);
    }
    if ((c->flags & NETIO__SHUT) && c->state < NETIO__DRAINING) netio__filters_shutdown(c);
}

static void netio__conn_opened(netio__conn *c);

static void netio__filters_settle(netio__conn *c)
{
    if (!netio__filters_ready(c)) return;
    netio__work(&c->node);
    if (c->state == NETIO__OPENING) netio__conn_opened(c);
    else if (c->flags & NETIO__CLOSE_ASKED) netio__conn_close_start(c);
    else c->flags |= NETIO__TELL_SECURE;
}

NETIO_API int netio_filter_ready(netio_filter_io *io)
{
    netio__conn *c = io->c;
    if (io->ready) return 0;
    io->ready = true;
    if (c->state < NETIO__CLOSING && c->state != NETIO__DIALING) {
        // What others said through this one, such as a handshake: they wait for its answer.
        if (netio__filter_unhold(io) < 0) netio__conn_fail(c, NETIO_ENOMEM, NETIO_STAGE_WRITE);
        else netio__filters_settle(c);
    }
    return c->state >= NETIO__CLOSING ? (int)NETIO_ECANCELED : 0;
}

static int netio__filter_open(netio_filter_io *io)
{
    if (io->opened) return 0;
    io->opened = true;
    if (!io->ops->open) return netio_filter_ready(io);
    return netio__filter_result(io, io->ops->open(io, io->arg));
}

// Nearest to the wire. Opened at once if the connection has one.
static int netio__filter_push(netio__conn *c, netio_filter f)
{
    netio__cold *cold = netio__cold_of(c);
    if (!cold) return NETIO_ENOMEM;
    netio_filter_io *io = (netio_filter_io *)NETIO_MALLOC(sizeof *io);
    if (!io) return NETIO_ENOMEM;
    memset(io, 0, sizeof *io);
    io->c = c;
    io->ops = f.ops;
    io->arg = f.arg;
    io->due_us = NETIO__NEVER_US;
    netio__filter_ref(f);
    io->inner = cold->outer;
    if (cold->outer) {
        cold->outer->outer = io;
    } else {
        cold->inner = io;
        cold->kept_raw = cold->kept_len > 0;
        cold->plain = c->queued; // what waits was the handler's as well
        if (c->out && c->queued) c->out_last->plain += c->queued;
    }
    cold->outer = io;
    return 0;
}

NETIO_API int netio_conn_add_filter(netio_conn h, netio_filter f)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    if (!f.ops) return NETIO_EINVAL;
    netio_loop *loop = c->node.loop;
    bool kept = netio__kept_len(c) || (loop->lending == &c->node && loop->kept);
    if (f.ops->from_clean && (kept || netio__frames_wait(c))) return NETIO_EPROTO;
    int err = c->cold && !c->cold->outer ? netio__frames_restart(c) : 0;
    if (err == 0) err = netio__filter_push(c, f);
    if (err < 0 || c->state == NETIO__DIALING) return err; // then opened with the connection
    netio__filter_open(c->cold->outer);                    // its failure is told by on_close
    if (c->cold->kept_raw) c->flags |= NETIO__TELL_KEPT;
    netio__work(&c->node);
    return 0;
}

NETIO_API void *netio_conn_filter(netio_conn h, const netio_filter_ops *ops)
{
    netio__conn *c = netio__conn_known(h);
    for (netio_filter_io *io = c && c->cold ? c->cold->inner : NULL; io; io = io->outer)
        if (io->ops == ops) return io->self;
    return NULL;
}

NETIO_API void netio_filter_timer(netio_filter_io *io, int delay_ms)
{
    io->due_us = delay_ms < 0 ? NETIO__NEVER_US : netio__in_ms(io->c->node.loop, delay_ms);
    netio__conn_arm(io->c);
}

NETIO_API netio_conn netio_filter_conn(const netio_filter_io *io)
{
    return netio__conn_handle(io->c);
}

NETIO_API bool netio_filter_dialed(const netio_filter_io *io)
{
    return (io->c->flags & NETIO__DIALED) != 0;
}

NETIO_API void *netio_filter_self(const netio_filter_io *io) { return io->self; }

NETIO_API void netio_filter_set_self(netio_filter_io *io, void *self) { io->self = self; }

static void netio__filters_timer(netio__conn *c)
{
    netio_filter_io *io = c->cold ? c->cold->inner : NULL;
    for (; io; io = io->outer) {
        if (io->due_us > c->node.loop->now_us) continue;
        io->due_us = NETIO__NEVER_US;
        if (c->state < NETIO__CLOSING && io->ops->timer)
            netio__filter_result(io, io->ops->timer(io));
    }
}

static void netio__filter_explain(netio__conn *c)
{
    netio_filter_io *io = c->cold ? c->cold->inner : NULL;
    if (c->err >= 0) return;
    for (; io; io = io->outer) {
        if (!io->failed || !io->ops->explain) continue;
        netio_error *error = (netio_error *)NETIO_MALLOC(sizeof *error);
        if (!error) return;
        netio_conn_error(netio__conn_handle(c), error);
        io->ops->explain(io, error);
        c->cold->error = error;
        return;
    }
}

static void netio__filters_free(netio__conn *c)
{
    netio_filter_io *io = c->cold->inner;
    netio__chunks_drop(c->node.loop, c->cold->later);
    c->cold->later = NULL;
    c->cold->inner = c->cold->outer = NULL;
    while (io) {
        netio_filter_io *next = io->outer;
        netio_filter f;
        f.ops = io->ops;
        f.arg = io->arg;
        if (io->opened && io->ops->close) io->ops->close(io);
        netio__filter_unref(f);
        netio__chunks_drop(c->node.loop, io->held);
        NETIO_FREE(io);
        io = next;
    }
}

// --- writing -----------------------------------------------------------------------------------

// Whether a write of so many bytes may be taken; what waits is sent first if that helps.
static int netio__write_room(netio__conn *c, size_t len)
{
    size_t max = c->shape->queue_max;
    if (c->flags & (NETIO__SHUT | NETIO__CLOSE_ASKED)) return NETIO_EPIPE;
    size_t level = netio__level(c);
    if (level == 0 || (len <= max && level <= max - len)) return 0;
    if (c->state == NETIO__OPEN) netio__conn_flush(c);
    if (c->state == NETIO__OVER) return NETIO_ESTALE;
    if (c->flags & NETIO__SHUT) return NETIO_EPIPE;
    level = netio__level(c);
    if (level == 0 || (len <= max && level <= max - len)) return 0;
    c->flags |= NETIO__CONGESTED | NETIO__DRAIN_DUE;
    if (level <= c->shape->low) c->flags |= NETIO__DRAIN_EMPTY;
    netio__work(&c->node);
    return NETIO_ENOBUFS;
}

// Tries a large write from the caller's memory, the queue first. Sets how much is gone; a failure
// is told by on_close.
static void netio__write_direct(netio__conn *c, const netio_buf *bufs, size_t count, size_t *sent)
{
    *sent = 0;
    if (c->state != NETIO__OPEN || count > 64 || c->shape->write_rate) return;
    netio__conn_flush(c);
    if (c->out || !netio__may_send(c)) return;
    ptrdiff_t n = netio__ops(&c->node)->send(&c->node, bufs, count, false);
    if (!netio__send_result(c, n) || n == 0) return;
    *sent = (size_t)n;
    netio__sent_count(c, (size_t)n);
}

static int netio__write_filtered(netio__conn *c, const netio_buf *bufs, size_t count, size_t len)
{
    netio__cold *cold = c->cold;
    // Small ones wait for the end of the turn, so that a filter sees them together.
    if (len >= NETIO__DIRECT && !cold->later && c->state >= NETIO__OPEN && netio__filters_ready(c))
        return netio__filter_write(c, bufs, count, len);
    int err = netio__chunks_put(c->node.loop, &cold->later, &cold->later_last, bufs, count, 0, len);
    if (err == 0) cold->plain += len;
    netio__work(&c->node);
    return err;
}

// A chunk to the end of the write queue: bytes of ours or the user's, or a file (data NULL).
static void netio__queue_chunk(netio__conn *c, netio__chunk *k)
{
    netio__chunk_append(&c->out, &c->out_last, k);
    if (c->queued == 0) c->progress = netio__tick(c->node.loop);
    c->queued += k->len;
    netio__level_rose(c);
    netio__work(&c->node);
}

// What is within the limits.
static int netio__write_taken(netio__conn *c, const netio_buf *bufs, size_t count, size_t len)
{
    netio_loop *loop = c->node.loop;
    size_t sent = 0;
    int err = 0;
    if (c->cold && c->cold->inner) {
        err = netio__write_filtered(c, bufs, count, len);
    } else if (len >= NETIO__DIRECT) {
        // The room is made first, so that no half of a write is refused.
        netio__chunk *rest = netio__chunk_make(loop, len);
        if (!rest) return NETIO_ENOMEM;
        netio__write_direct(c, bufs, count, &sent);
        if (sent < len && c->state != NETIO__OVER && !(c->flags & NETIO__FIN_SENT)) {
            netio__chunk *first = rest, *last = rest;
            netio__chunks_put(loop, &first, &last, bufs, count, sent, len - sent);
            netio__queue_chunk(c, rest);
        } else {
            netio__chunk_drop(loop, rest);
        }
    } else {
        err = netio__wire_put(c, bufs, count, 0, len);
    }
    if (err == 0) netio__level_rose(c);
    return err;
}

static int netio__write(netio__conn *c, const netio_buf *bufs, size_t count)
{
    size_t len = netio__bufs_len(bufs, count);
    if (len == SIZE_MAX) return NETIO_EINVAL;
    int err = netio__write_room(c, len);
    return err < 0 || len == 0 ? err : netio__write_taken(c, bufs, count, len);
}

// A small write of a plain connection, into the chunk that is the queue's last.
static int netio__write_plain(netio__conn *c, const void *data, size_t len)
{
    netio__chunk *k = c->out ? c->out_last : NULL;
    if (!k || k->cap - k->len < len || !k->cap) {
        netio__chunk *more = netio__chunk_make(c->node.loop, len);
        if (!more) return NETIO_ENOMEM;
        netio__chunk_append(&c->out, &c->out_last, more);
        k = more;
    }
    memcpy(k->data + k->len, data, len);
    k->len += len;
    if (c->queued == 0) c->progress = netio__tick(c->node.loop);
    c->queued += len;
    netio__work(&c->node);
    return 0;
}

NETIO_API int netio_conn_write(netio_conn h, const void *data, size_t len)
{
    netio__conn *c = netio__conn_live(h);
    netio_buf buf;
    if (!c) return NETIO_ESTALE;
    if (netio__is_plain(c) && data && len - 1 < NETIO__DIRECT - 1 &&
        c->queued + len <= c->shape->high)
        return netio__write_plain(c, data, len);
    buf.data = data;
    buf.len = len;
    return netio__write(c, &buf, 1);
}

NETIO_API int netio_conn_writev(netio_conn h, const netio_buf *bufs, size_t count)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    if (!bufs && count) return NETIO_EINVAL;
    return netio__write(c, bufs, count);
}

static netio__chunk *netio__chunk_foreign(netio_task release, void *user)
{
    netio__chunk *k = (netio__chunk *)NETIO_MALLOC(sizeof *k);
    if (!k) return NULL;
    memset(k, 0, sizeof *k);
    k->release = release;
    k->user = user;
    return k;
}

NETIO_API int netio_conn_write_owned(netio_conn h, const void *data, size_t len, netio_task release,
                                     void *user)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    if (!data && len) return NETIO_EINVAL;
    int err = netio__write_room(c, len);
    if (err < 0) return err;
    netio__chunk *k = netio__chunk_foreign(release, user);
    if (!k) return NETIO_ENOMEM;
    if (len == 0 || (c->cold && c->cold->inner)) { // copied by the filter
        netio_buf buf;
        buf.data = data;
        buf.len = len;
        err = len ? netio__write(c, &buf, 1) : 0;
        if (err < 0) NETIO_FREE(k);
        else netio__chunk_drop(c->node.loop, k);
        netio__work(&c->node);
        return err;
    }
    k->data = (uint8_t *)(uintptr_t)data;
    k->len = len;
    netio__queue_chunk(c, k);
    if (len >= NETIO__DIRECT && c->state == NETIO__OPEN) netio__conn_flush(c);
    return 0;
}

NETIO_API int netio_conn_write_file(netio_conn h, netio_file file, uint64_t off, uint64_t len,
                                    netio_task release, void *user)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    if (len > INT64_MAX || off > INT64_MAX - len) return NETIO_EINVAL;
    int err = netio__write_room(c, 0);
    if (err < 0) return err;
    netio__chunk *k = netio__chunk_foreign(release, user);
    if (!k) return NETIO_ENOMEM;
    k->file = file;
    k->file_off = off;
    k->file_len = len;
    if (c->cold && c->cold->inner) netio__chunk_append(&c->cold->later, &c->cold->later_last, k);
    else netio__queue_chunk(c, k);
    netio__work(&c->node);
    return 0;
}

NETIO_API int netio_conn_flush(netio_conn h)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    if (c->state == NETIO__OPEN) netio__conn_flush(c);
    return 0;
}

NETIO_API size_t netio_conn_pending(netio_conn h)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return 0;
    size_t len = netio__level(c);
    netio__chunk *files = c->cold && c->cold->inner ? c->cold->later : c->out;
    for (netio__chunk *k = files; k; k = k->next)
        len = k->file_len > SIZE_MAX - len ? SIZE_MAX : len + (size_t)k->file_len;
    return len;
}

NETIO_API bool netio_conn_congested(netio_conn h)
{
    netio__conn *c = netio__conn_live(h);
    return c && (c->flags & NETIO__CONGESTED);
}

// --- opening -----------------------------------------------------------------------------------

static netio__conn *netio__conn_make(netio_loop *loop, netio__shape *shape,
                                     const netio_handler *handler, void *user)
{
    netio__conn *c = netio__conn_of(netio__node_make(loop, NETIO__CONN));
    if (!c) return NULL;
    shape->refs++;
    c->shape = shape;
    c->handler = handler ? handler : &netio__no_handler;
    c->user = user;
    c->opened_us = loop->now_us;
    c->active = c->progress = netio__tick(loop);
    c->state = NETIO__OPENING;
    if (shape->read_rate || shape->write_rate) c->flags |= NETIO__RATED;
    return c;
}

// Undoes make, before anything else happened.
static void netio__conn_unmake(netio__conn *c)
{
    netio__cold_free(c);
    netio__shape_unref(c->shape);
    netio__node_free(&c->node);
}

static void netio__conn_opened(netio__conn *c)
{
    c->state = NETIO__OPEN;
    c->active = c->progress = netio__tick(c->node.loop);
    netio__work(&c->node);
    netio__conn_arm(c);
    if (c->flags & NETIO__CLOSE_ASKED) netio__conn_close_start(c);
    else c->flags |= NETIO__TELL_OPEN | NETIO__TELL_KEPT;
}

// It has its end. Filters first, if there are any.
static void netio__conn_begin(netio__conn *c)
{
    c->state = NETIO__OPENING;
    netio__work(&c->node);
    if (!c->cold || !c->cold->outer) {
        netio__conn_opened(c);
        return;
    }
    // The one nearest to the wire shakes hands first; the others' words wait in it.
    for (netio_filter_io *io = c->cold->outer; io && c->state == NETIO__OPENING; io = io->inner)
        netio__filter_open(io);
    netio__conn_arm(c);
}

// --- limits by address: a hash table of the hosts that are connected now ------------------------

typedef struct netio__host {
    uint64_t key; // 0: empty
    size_t count;
} netio__host;

static uint64_t netio__host_key(const netio_addr *a)
{
    netio_buf ip = netio_addr_ip(a);
    const uint8_t *p = (const uint8_t *)ip.data;
    uint64_t key = 0;
    if (ip.len != 4 && ip.len != 16) return 1; // Unix: all are one host
    for (size_t i = 0; i < (ip.len == 4 ? 4u : 8u); i++) key = key << 8 | p[i];
    if (ip.len == 4) key |= UINT64_C(1) << 63 | UINT64_C(1) << 32;
    return key ? key : 1;
}

static size_t netio__host_home(const netio__gate *gate, uint64_t key)
{
    return (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (gate->host_cap - 1);
}

static netio__host *netio__host_find(netio__gate *gate, uint64_t key)
{
    size_t i = netio__host_home(gate, key);
    while (gate->hosts[i].key && gate->hosts[i].key != key) i = (i + 1) & (gate->host_cap - 1);
    return &gate->hosts[i];
}

static int netio__hosts_grow(netio__gate *gate)
{
    size_t cap = gate->host_cap ? gate->host_cap * 2 : 64, old_cap = gate->host_cap;
    netio__host *old = gate->hosts;
    if (gate->host_count + 1 <= gate->host_cap / 4 * 3) return 0;
    gate->hosts = (netio__host *)NETIO_MALLOC(cap * sizeof *old);
    if (!gate->hosts) {
        gate->hosts = old;
        return NETIO_ENOMEM;
    }
    memset(gate->hosts, 0, cap * sizeof *old);
    gate->host_cap = cap;
    for (size_t i = 0; i < old_cap; i++)
        if (old[i].key) *netio__host_find(gate, old[i].key) = old[i];
    NETIO_FREE(old);
    return 0;
}

// Counts one more; NETIO_EBUSY: there are too many from there.
static int netio__host_enter(netio__gate *gate, uint64_t key)
{
    int err = netio__hosts_grow(gate);
    if (err < 0) return err;
    netio__host *h = netio__host_find(gate, key);
    if (h->count >= gate->per_host) return NETIO_EBUSY;
    if (!h->key) gate->host_count++;
    h->key = key;
    h->count++;
    return 0;
}

static void netio__host_leave(netio__gate *gate, uint64_t key)
{
    netio__host *h = netio__host_find(gate, key);
    if (!h->key || --h->count > 0) return;
    size_t mask = gate->host_cap - 1, gap = (size_t)(h - gate->hosts), i = gap;
    for (;;) { // those behind it close the gap
        i = (i + 1) & mask;
        if (!gate->hosts[i].key) break;
        if (((i - netio__host_home(gate, gate->hosts[i].key)) & mask) >= ((i - gap) & mask)) {
            gate->hosts[gap] = gate->hosts[i];
            gap = i;
        }
    }
    memset(&gate->hosts[gap], 0, sizeof gate->hosts[gap]);
    gate->host_count--;
}

static void netio__gate_leave(netio__conn *c)
{
    netio__gate *gate = c->shape->gate;
    if (!(c->flags & NETIO__LIMITED)) return;
    c->flags &= ~(uint32_t)NETIO__LIMITED;
    gate->open--;
    if (c->cold && c->cold->host) netio__host_leave(gate, c->cold->host);
    if (c->cold) c->cold->host = 0;
}

// --- listeners ---------------------------------------------------------------------------------

typedef struct netio__worker { // a loop that takes connections over; its thread's, but for `loop`
    netio_loop *loop;
    const netio_handler *handler;
    netio__shape *shape;
    netio__post *enter, *leave; // made ahead, so that leaving cannot fail
} netio__worker;

typedef struct netio__listener {
    netio__node node;
    struct netio__listener *twin; // the second socket, where no socket is dual
    const netio_handler *handler;
    netio__shape *shape;
    netio__worker **workers; // NULL in the place of this loop itself
    size_t worker_count, next_worker;
    int backoff_ms; // of the pause that lack of descriptors causes; 0: none
    bool paused, starved, closed, is_twin;
} netio__listener;

typedef struct netio__handover {
    netio__worker *worker;
    netio__io io;
    netio_addr peer;
    bool known; // peer is set
} netio__handover;

static netio__listener *netio__listener_of(netio__node *n) { return (netio__listener *)(void *)n; }

static bool netio__gate_trusts(const netio__gate *gate, const netio_addr *peer)
{
    for (size_t i = 0; i < gate->trusted_count; i++)
        if (netio_cidr_contains(&gate->trusted[i], peer)) return true;
    return false;
}

// Whether the addresses of clients are needed as they come.
static bool netio__wants_peer(netio__node *n)
{
    const netio__gate *gate = netio__listener_of(n)->shape->gate;
    return gate->on_accept || gate->on_refused || gate->per_host || gate->trusted;
}

static void netio__tell_refused(netio__gate *gate, const netio_addr *peer, int err, int stage)
{
    netio_error why;
    netio_addr nobody;
    gate->stats.refused++;
    if (!gate->on_refused) return;
    memset(&nobody, 0, sizeof nobody);
    netio__error_set(&why, err, stage, 0, peer, peer ? NULL : "connection");
    gate->on_refused(gate->user, peer ? peer : &nobody, &why);
}

// An accepted connection that ended before it was handed out.
static void netio__refused(netio__conn *c)
{
    netio__gate *gate = c->shape->gate;
    netio_addr peer;
    netio_error why;
    if (!gate || !(c->flags & NETIO__LIMITED)) return; // refused before
    c->node.loop->stats.refused++;
    gate->stats.refused++;
    if (!gate->on_refused) return;
    memset(&peer, 0, sizeof peer);
    memset(&why, 0, sizeof why);
    netio_conn_peer(netio__conn_handle(c), &peer);
    netio_conn_error(netio__conn_handle(c), &why);
    c->node.loop->calls++;
    gate->on_refused(gate->user, &peer, &why);
}

// Told politely, drained like any other that closes; 256 at most at a time.
static void netio__refuse(netio_loop *loop, netio__shape *shape, netio__io io,
                          const netio_addr *peer, int err)
{
    netio__gate *gate = shape->gate;
    netio__conn *c = NULL;
    loop->stats.refused++;
    loop->calls++;
    netio__tell_refused(gate, peer, err, NETIO_STAGE_NONE);
    if (gate->refusal && loop->lingering < 256) c = netio__conn_make(loop, shape, NULL, NULL);
    if (!c) {
        netio__ops_of(loop)->discard(loop, io);
        return;
    }
    netio_buf text;
    text.data = gate->refusal;
    text.len = strlen(gate->refusal);
    loop->lingering++;
    c->node.io = io;
    c->flags |= NETIO__LINGERS;
    netio__ops(&c->node)->own(&c->node);
    netio__wire_put(c, &text, 1, 0, text.len);
    netio__conn_close_start(c);
}

static int netio__proxy_push(netio__conn *c);
static int netio__framing_start(netio__conn *c);

// Limits, then a connection.
static void netio__admit(netio_loop *loop, netio__shape *shape, const netio_handler *handler,
                         netio__io io, const netio_addr *peer)
{
    netio__gate *gate = shape->gate;
    uint64_t host = 0;
    int err = 0;
    if (gate->open >= gate->open_max && !netio__closing_reset(loop, gate)) err = NETIO_EBUSY;
    if (err == 0 && gate->on_accept && !gate->on_accept(gate->user, peer)) err = NETIO_EACCES;
    if (err == 0 && (loop->finishing || loop->destroying)) err = NETIO_ECANCELED;
    if (err == 0 && gate->trusted && !netio__gate_trusts(gate, peer)) err = NETIO_EACCES;
    if (err == 0 && gate->per_host) {
        host = netio__host_key(peer);
        err = netio__host_enter(gate, host);
        if (err < 0) host = 0; // not counted
    }
    netio__conn *c = err < 0 ? NULL : netio__conn_make(loop, shape, handler, gate->user);
    if (c && host && !netio__cold_of(c)) err = NETIO_ENOMEM;
    if (c && err == 0 && shape->filter.ops) err = netio__filter_push(c, shape->filter);
    if (c && err == 0 && gate->trusted) err = netio__proxy_push(c);
    if (c && err == 0) err = netio__framing_start(c);
    if (!c && err == 0) err = NETIO_ENOMEM;
    if (err < 0) {
        if (c) netio__conn_unmake(c);
        if (host) netio__host_leave(gate, host);
        netio__refuse(loop, shape, io, peer, err);
        return;
    }
    c->node.io = io;
    c->flags |= NETIO__LIMITED;
    gate->open++;
    gate->stats.accepted++;
    loop->stats.accepted++;
    if (c->cold) c->cold->host = host;
    if (c->cold && peer) netio__peer_keep(c, peer); // else the socket is asked
    netio__ops(&c->node)->own(&c->node);
    netio__op(c, NETIO_OP_ACCEPT, 0);
    netio__conn_begin(c);
    if (c->state == NETIO__OPEN && (c->flags & NETIO__TELL_OPEN)) netio__tell_open(c);
}

static void netio__handover_take(void *arg)
{
    netio__handover *m = (netio__handover *)arg;
    netio_loop *loop = m->worker->loop;
    if (loop->finishing) netio__ops_of(loop)->discard(loop, m->io);
    else
        netio__admit(loop, m->worker->shape, m->worker->handler, m->io, m->known ? &m->peer : NULL);
}

static void netio__handover_drop(void *arg)
{
    netio__handover *m = (netio__handover *)arg;
    netio__ops_of(m->worker->loop)->discard(m->worker->loop, m->io);
}

static void netio__accepted(netio__node *node, netio__io io, const netio_addr *peer)
{
    netio__listener *l = netio__listener_of(node);
    netio__shape *shape = l->shape; // a callback may give the listener another one
    netio__handover m;
    l->backoff_ms = 0;
    m.worker = l->worker_count ? l->workers[l->next_worker++ % l->worker_count] : NULL;
    if (!m.worker) {
        shape->refs++;
        netio__admit(node->loop, shape, l->handler, io, peer);
        netio__shape_unref(shape);
        return;
    }
    m.io = io;
    m.known = peer != NULL;
    if (peer) m.peer = *peer;
    else memset(&m.peer, 0, sizeof m.peer);
    if (netio_loop_post(m.worker->loop, netio__handover_take, netio__handover_drop, &m, sizeof m) <
        0)
        netio__refuse(node->loop, shape, io, peer, NETIO_ENOMEM);
}

static void netio__listener_want(netio__listener *l)
{
    bool on = !l->paused && !l->starved && !l->closed;
    netio__ops(&l->node)->want(&l->node, on ? (unsigned)NETIO_EV_READ : 0);
}

static void netio__accept_failed(netio__node *node, int err)
{
    netio__listener *l = netio__listener_of(node);
    netio_loop *loop = node->loop;
    l->shape->gate->stats.other_errors++;
    // One that is closing makes room; the client still waits and is reported again.
    if (err == NETIO_EMFILE && netio__closing_reset(loop, NULL)) return;
    l->backoff_ms = l->backoff_ms ? l->backoff_ms * 2 : 10;
    if (l->backoff_ms > 1000) l->backoff_ms = 1000;
    if (l->backoff_ms == 10) netio__log(loop, NETIO_LOG_WARN, "accepting pauses", err);
    if (netio__timer_set(node, netio__in_ms(loop, l->backoff_ms)) < 0) return; // then it is retried
    l->starved = true;
    loop->starved++;
    netio__listener_want(l);
}

static void netio__listener_feed(netio__listener *l)
{
    if (!l->starved) return;
    l->starved = false;
    l->node.loop->starved--;
    netio__timer_clear(&l->node);
    netio__listener_want(l);
}

static void netio__listeners_feed(netio_loop *loop)
{
    netio__node *n;
    for (size_t i = 0; (n = netio__slab_at(&loop->slabs[NETIO__LISTENER], i)) != NULL; i++)
        if (n->gen) netio__listener_feed(netio__listener_of(n));
}

static int netio__gate_make(netio__gate **out, const netio_listener_opts *o)
{
    netio__gate *gate = (netio__gate *)NETIO_MALLOC(sizeof *gate);
    if (!gate) return NETIO_ENOMEM;
    memset(gate, 0, sizeof *gate);
    gate->open_max = netio__size_or(o->conn_max, 100000);
    gate->per_host = o->conn_max_per_host;
    gate->on_accept = o->on_accept;
    gate->on_refused = o->on_refused;
    gate->user = o->conn.user;
    if (o->refusal) {
        size_t len = strlen(o->refusal) + 1;
        gate->refusal = (char *)NETIO_MALLOC(len);
        if (!gate->refusal) {
            NETIO_FREE(gate);
            return NETIO_ENOMEM;
        }
        memcpy(gate->refusal, o->refusal, len);
    }
    *out = gate;
    return 0;
}

static int netio__gate_trust(netio__gate *gate, const netio_listener_opts *o)
{
    size_t count = o->proxy_trusted_count;
    if (!o->proxy_protocol) return 0;
    if (count == 0 || !o->proxy_trusted) return NETIO_EINVAL; // believing anybody is no protection
    gate->trusted = (netio_cidr *)NETIO_MALLOC(count * sizeof *gate->trusted);
    if (!gate->trusted) return NETIO_ENOMEM;
    gate->trusted_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *text = o->proxy_trusted[i];
        int err = netio_cidr_parse(&gate->trusted[i], text, strlen(text));
        if (err < 0) return err;
    }
    return 0;
}

static int netio__gated_shape(netio__shape **out, const netio_listener_opts *o)
{
    netio__gate *gate;
    int err = netio__gate_make(&gate, o);
    if (err < 0) return err;
    gate->refs = 1;
    err = netio__gate_trust(gate, o);
    if (err == 0) err = netio__shape_make(out, &o->conn, gate);
    netio__gate_unref(gate); // the shape has it
    return err;
}

static void netio__worker_enter(void *arg) { ((netio__worker *)arg)->loop->active++; }

static void netio__worker_free(netio__worker *w)
{
    if (!w) return;
    netio__shape_unref(w->shape);
    NETIO_FREE(w->enter);
    NETIO_FREE(w->leave);
    NETIO_FREE(w);
}

static void netio__worker_leave(void *arg)
{
    netio__worker *w = (netio__worker *)arg;
    w->loop->active--;
    netio__worker_free(w);
}

static void netio__worker_drop(void *arg) { netio__worker_free((netio__worker *)arg); }

static netio__worker *netio__worker_make(netio_loop *loop, const netio_handler *handler,
                                         const netio_listener_opts *o)
{
    netio__worker *w = (netio__worker *)NETIO_MALLOC(sizeof *w);
    if (!w) return NULL;
    memset(w, 0, sizeof *w);
    w->loop = loop;
    w->handler = handler;
    w->enter = netio__post_make(netio__worker_enter, NULL, w, 0);
    w->leave = netio__post_make(netio__worker_leave, netio__worker_drop, w, 0);
    if (!w->enter || !w->leave || netio__gated_shape(&w->shape, o) < 0) {
        netio__worker_free(w);
        return NULL;
    }
    return w;
}

static int netio__workers_make(netio__listener *l, const netio_listener_opts *o)
{
    if (!o->workers || o->worker_count == 0) return 0;
    size_t size = o->worker_count * sizeof(netio__worker *);
    l->workers = (netio__worker **)NETIO_MALLOC(size);
    if (!l->workers) return NETIO_ENOMEM;
    memset(l->workers, 0, size);
    l->worker_count = o->worker_count;
    for (size_t i = 0; i < o->worker_count; i++) {
        if (o->workers[i] == l->node.loop) continue;
        l->workers[i] = netio__worker_make(o->workers[i], l->handler, o);
        if (!l->workers[i]) return NETIO_ENOMEM;
    }
    return 0;
}

static void netio__workers_start(netio__listener *l)
{
    for (size_t i = 0; i < l->worker_count; i++) {
        netio__worker *w = l->workers[i];
        if (!w) continue;
        netio__post *enter = w->enter;
        w->enter = NULL;
        netio__post_put(w->loop, enter);
    }
}

// Those that were started leave on their own threads, after the connections they were given.
static void netio__workers_end(netio__listener *l)
{
    for (size_t i = 0; i < l->worker_count; i++) {
        netio__worker *w = l->workers[i];
        if (!w) continue;
        netio__post *leave = w->enter ? NULL : w->leave;
        if (leave) w->leave = NULL;
        if (leave) netio__post_put(w->loop, leave);
        else netio__worker_free(w);
    }
    NETIO_FREE(l->workers);
    l->workers = NULL;
    l->worker_count = 0;
}

// Freed when the engine has closed its end and the turn is over.
static void netio__listener_end(netio__listener *l)
{
    if (l->closed) return;
    l->closed = true;
    netio__listener_feed(l);
    if (l->twin) netio__listener_end(l->twin);
    if (l->node.io.socket == NETIO_INVALID_SOCKET) netio__closed(&l->node);
    else netio__ops(&l->node)->close(&l->node, false);
}

static void netio__listener_free(netio__listener *l)
{
    if (!l->is_twin) netio__workers_end(l);
    netio__shape_unref(l->shape);
    netio__node_free(&l->node);
}

static netio__listener *netio__listener_make(netio_loop *loop, const netio_handler *handler)
{
    netio__listener *l = netio__listener_of(netio__node_make(loop, NETIO__LISTENER));
    if (l) l->handler = handler ? handler : &netio__no_handler;
    return l;
}

// ":port" on a system whose sockets take one family each: IPv6, then IPv4 on the same port.
static int netio__listener_twins(netio__listener *l, const char *address,
                                 const netio_listener_opts *o)
{
    netio_socket_opts so = o->socket;
    netio_addr a;
    char text[NETIO_ADDR_TEXT];
    int err = netio_addr_parse(&a, address, strlen(address));
    if (err < 0 || !a.dual || so.family) return NETIO_ENOTSUP;
    so.family = NETIO_IPV6;
    err = netio__ops(&l->node)->listen(&l->node, address, &so);
    if (err == 0) err = netio__ops(&l->node)->name(&l->node, &a, false);
    if (err < 0) return err;
    netio__listener *twin = netio__listener_make(l->node.loop, l->handler);
    if (!twin) return NETIO_ENOMEM;
    uint16_t port = netio_addr_port(&a);
    netio_addr_any(&a, NETIO_IPV4, port);
    netio_addr_format(&a, text, sizeof text);
    so.family = NETIO_IPV4;
    err = netio__ops(&twin->node)->listen(&twin->node, text, &so);
    if (err < 0) {
        netio__node_free(&twin->node);
        return err;
    }
    twin->is_twin = true;
    twin->shape = l->shape;
    twin->shape->refs++;
    l->twin = twin;
    return 0;
}

// `s` invalid: opens `address`.
static int netio__listener_start(netio_listener *out, netio_loop *loop, const char *address,
                                 netio_socket s, const netio_handler *handler,
                                 const netio_listener_opts *o)
{
    if (o->socket.type && o->socket.type != NETIO_STREAM) return NETIO_EINVAL;
    netio__listener *l = netio__listener_make(loop, handler);
    if (!l) return NETIO_ENOMEM;
    int err = netio__gated_shape(&l->shape, o);
    if (err == 0) err = netio__workers_make(l, o);
    if (err == 0 && address) {
        err = netio__ops(&l->node)->listen(&l->node, address, &o->socket);
        if (err == NETIO_ENOTSUP) err = netio__listener_twins(l, address, o);
    } else if (err == 0) {
        l->node.io.socket = s;
    }
    if (err == 0) err = netio__ops(&l->node)->want(&l->node, NETIO_EV_READ);
    if (err == 0 && l->twin) err = netio__ops(&l->node)->want(&l->twin->node, NETIO_EV_READ);
    if (err < 0) {
        if (!address) l->node.io.socket = NETIO_INVALID_SOCKET; // still the caller's
        netio__listener_end(l);
        return err;
    }
    netio__workers_start(l);
    if (out) {
        out->ptr = l;
        out->gen = l->node.gen;
    }
    return 0;
}

static netio_listener_opts netio__no_listener_opts; // all zero, never written

NETIO_API int netio_listener_open(netio_listener *out, netio_loop *loop, const char *address,
                                  const netio_handler *handler, const netio_listener_opts *opts)
{
    if (!loop || !address) return NETIO_EINVAL;
    if (loop->destroying || loop->finishing) return NETIO_ECANCELED;
    return netio__listener_start(out, loop, address, NETIO_INVALID_SOCKET, handler,
                                 opts ? opts : &netio__no_listener_opts);
}

NETIO_API int netio_listener_adopt(netio_listener *out, netio_loop *loop, netio_socket s,
                                   const netio_handler *handler, const netio_listener_opts *opts)
{
    int listening = 0;
    if (!loop) return NETIO_EINVAL;
    if (!loop->poller) return NETIO_ENOTSUP;
    if (loop->destroying || loop->finishing) return NETIO_ECANCELED;
    int err = netio_adopt(s, NULL);
    if (err == 0 && netio_get_option(s, NETIO_OPT_LISTENING, &listening) == 0 && !listening)
        err = NETIO_EINVAL;
    if (err < 0) return err;
    return netio__listener_start(out, loop, NULL, s, handler,
                                 opts ? opts : &netio__no_listener_opts);
}

static netio__listener *netio__listener_live(netio_listener h)
{
    netio__listener *l = netio__listener_of(netio__node_of(h.ptr, h.gen));
    return l && !l->closed ? l : NULL;
}

NETIO_API void netio_listener_close(netio_listener h)
{
    netio__listener *l = netio__listener_live(h);
    if (l) netio__listener_end(l);
}

static int netio__listener_set_paused(netio_listener h, bool paused)
{
    netio__listener *l = netio__listener_live(h);
    if (!l) return NETIO_ESTALE;
    for (; l; l = l->twin) {
        l->paused = paused;
        netio__listener_want(l);
    }
    return 0;
}

NETIO_API int netio_listener_pause(netio_listener h) { return netio__listener_set_paused(h, true); }

NETIO_API int netio_listener_resume(netio_listener h)
{
    return netio__listener_set_paused(h, false);
}

NETIO_API int netio_listener_addr(netio_listener h, netio_addr *out)
{
    netio__listener *l = netio__listener_live(h);
    if (!l) return NETIO_ESTALE;
    return netio__ops(&l->node)->name(&l->node, out, false);
}

NETIO_API int netio_listener_socket(netio_listener h, netio_socket *out)
{
    netio__listener *l = netio__listener_live(h);
    if (!l) return NETIO_ESTALE;
    return netio__ops(&l->node)->socket(&l->node, out);
}

NETIO_API int netio_listener_stats(netio_listener h, netio_stats *out)
{
    netio__listener *l = netio__listener_live(h);
    if (!l) return NETIO_ESTALE;
    *out = l->shape->gate->stats;
    out->active = l->shape->gate->open;
    return 0;
}

NETIO_API int netio_listener_set_filter(netio_listener h, netio_filter f)
{
    netio__listener *l = netio__listener_live(h);
    netio__shape *shape;
    if (!l) return NETIO_ESTALE;
    if (l->worker_count) return NETIO_ENOTSUP; // theirs are on other threads
    shape = (netio__shape *)NETIO_MALLOC(sizeof *shape);
    if (!shape) return NETIO_ENOMEM;
    *shape = *l->shape; // connections that are open keep the old one
    shape->refs = 0;
    shape->filter = f;
    shape->gate->refs++;
    netio__filter_ref(f);
    for (; l; l = l->twin) {
        netio__shape_unref(l->shape);
        l->shape = shape;
        shape->refs++;
    }
    return 0;
}

// --- dialing -----------------------------------------------------------------------------------
//
// The race of >>socket.c on the loop: every name is looked up at once, addresses are tried as they
// come, the next when one has failed or after a head start. One deadline covers all, filters too.

typedef struct netio__attempt_node {
    netio__node node;
    netio__conn *c; // NULL: over
    size_t index;   // in the dial's list
    int pause_ms;   // Unix, backlog full: before the next try
} netio__attempt_node;

typedef struct netio__try {
    netio_addr addr;
    netio__attempt_node *node; // while it tries
    int err, os_code;
} netio__try;

typedef struct netio__ask {
    netio__conn *c;
    netio_lookup lookup;
} netio__ask;

struct netio__dial {
    netio_socket_opts o; // strings and arrays lie behind this struct
    netio__ask *asks;
    size_t ask_count, asking; // lookups, those that have not answered
    int lookup_err;           // of the first that failed
    netio__try list[NETIO_RESOLVE_MAX];
    size_t count, started, trying;
    uint64_t next_us; // when the next address starts
    uint64_t stagger_us;
};

static uint64_t netio__dial_deadline(const netio__conn *c)
{
    uint64_t due = c->cold ? c->cold->deadline_us : NETIO__NEVER_US;
    const netio__dial *d = c->cold ? c->cold->dial : NULL;
    return d && d->started < d->count && d->trying && d->next_us < due ? d->next_us : due;
}

static bool netio__dial_is_asking(const netio__conn *c)
{
    return c->cold && c->cold->dial && c->cold->dial->count == 0;
}

static void netio__attempt_close(netio__attempt_node *t)
{
    t->c = NULL;
    netio__timer_clear(&t->node);
    if (t->node.io.socket == NETIO_INVALID_SOCKET) netio__closed(&t->node);
    else netio__ops(&t->node)->close(&t->node, false);
}

// Stops what is under way; the records stay for netio_conn_attempts.
static void netio__dial_stop(netio__conn *c, int err)
{
    netio__dial *d = c->cold ? c->cold->dial : NULL;
    if (!d) return;
    for (size_t i = 0; i < d->ask_count; i++) netio_lookup_cancel(d->asks[i].lookup);
    d->asking = 0;
    for (size_t i = 0; i < d->started; i++) {
        if (!d->list[i].node) continue;
        netio__attempt_close(d->list[i].node);
        d->list[i].node = NULL;
        d->list[i].err = err;
    }
    d->trying = 0;
}

static void netio__dial_free(netio__conn *c)
{
    if (!c->cold || !c->cold->dial) return;
    netio__dial_stop(c, NETIO_ECANCELED);
    NETIO_FREE(c->cold->dial);
    c->cold->dial = NULL;
}

static void netio__dial_end(netio__conn *c, int err, int stage)
{
    netio__dial *d = c->cold->dial;
    if (stage == NETIO_STAGE_CONNECT) {
        size_t best = 0;
        for (size_t i = 1; i < d->started; i++)
            if (netio__race_rank(d->list[i].err) >= netio__race_rank(d->list[best].err)) best = i;
        err = d->list[best].err;
        netio__os_set_error(d->list[best].os_code);
        netio__peer_keep(c, &d->list[best].addr);
    }
    netio__conn_end(c, err, stage);
}

static void netio__try_fail(netio__conn *c, netio__try *t, int err)
{
    t->err = err;
    t->os_code = netio__os_error();
    if (t->node) netio__attempt_close(t->node);
    t->node = NULL;
    c->cold->dial->trying--;
}

static void netio__dial_won(netio__conn *c, netio__try *t)
{
    netio__attempt_node *won = t->node;
    t->node = NULL;
    c->node.io = won->node.io;
    c->node.armed = won->node.armed;
    won->node.io.socket = NETIO_INVALID_SOCKET;
    won->node.armed = 0;
    netio__attempt_close(won);
    netio__peer_keep(c, &t->addr);
    netio__ops(&c->node)->own(&c->node);
    netio__op(c, NETIO_OP_CONNECT, 0);
    netio__dial_free(c);
    netio__conn_begin(c);
}

static void netio__try_connect(netio__conn *c, netio__try *t)
{
    netio__attempt_node *a = t->node;
    int err = netio__ops(&a->node)->connect(&a->node, &t->addr, &c->cold->dial->o);
    if (err == NETIO_EAGAIN && netio_addr_family(&t->addr) == NETIO_UNIX) {
        a->pause_ms = a->pause_ms ? a->pause_ms < 32 ? a->pause_ms * 2 : 50 : 1;
        err = netio__timer_set(&a->node, netio__in_ms(c->node.loop, a->pause_ms));
        if (err == 0) return;
    }
    if (err == 0) netio__dial_won(c, t);
    else if (err != NETIO_EINPROGRESS) // EAGAIN of an IP socket: no ephemeral port is left
        netio__try_fail(c, t, err == NETIO_EAGAIN ? (int)NETIO_EADDRNOTAVAIL : err);
}

static void netio__try_start(netio__conn *c, netio__try *t)
{
    netio__dial *d = c->cold->dial;
    d->trying++;
    t->err = NETIO_EINPROGRESS;
    t->node = (netio__attempt_node *)(void *)netio__node_make(c->node.loop, NETIO__ATTEMPT);
    if (!t->node) {
        netio__try_fail(c, t, NETIO_ENOMEM);
        return;
    }
    t->node->c = c;
    t->node->index = (size_t)(t - d->list);
    netio__try_connect(c, t);
}

// Starts what is due; ends the dial when all has failed.
static void netio__dial_go(netio__conn *c)
{
    netio_loop *loop = c->node.loop;
    while (c->state == NETIO__DIALING) {
        netio__dial *d = c->cold->dial;
        bool due = d->trying == 0 || loop->now_us >= d->next_us;
        if (d->started < d->count && due) {
            d->next_us = loop->now_us + d->stagger_us;
            netio__try_start(c, &d->list[d->started++]);
        } else if (d->trying == 0 && d->asking == 0) {
            if (d->count) netio__dial_end(c, 0, NETIO_STAGE_CONNECT);
            else netio__dial_end(c, d->lookup_err, NETIO_STAGE_RESOLVE);
        } else {
            netio__conn_arm(c);
            return;
        }
    }
}

// A Unix socket whose backlog was full.
static void netio__attempt_again(netio__attempt_node *a)
{
    netio__conn *c = a->c;
    netio__try_connect(c, &c->cold->dial->list[a->index]);
    netio__dial_go(c);
}

static void netio__connected(netio__node *node, int err)
{
    netio__attempt_node *a = (netio__attempt_node *)(void *)node;
    netio__conn *c = a->c;
    if (!c) return;
    netio__try *t = &c->cold->dial->list[a->index];
    if (err == 0) {
        netio__dial_won(c, t);
        return;
    }
    netio__op(c, NETIO_OP_CONNECT, err);
    netio__try_fail(c, t, err);
    netio__dial_go(c);
}

static void netio__dial_answer(void *user, int err, const netio_addr *addrs, size_t count)
{
    netio__ask *ask = (netio__ask *)user;
    netio__conn *c = ask->c;
    netio__dial *d = c->cold->dial;
    d->asking--;
    memset(&ask->lookup, 0, sizeof ask->lookup);
    if (err < 0 && d->lookup_err == 0) d->lookup_err = err;
    for (size_t i = 0; err == 0 && i < count && d->count < NETIO_RESOLVE_MAX; i++) {
        d->list[d->count++].addr = addrs[i];
        if (!addrs[i].dual) continue;
        uint16_t port = netio_addr_port(&addrs[i]); // ":port": this machine, in either family
        netio_addr_loopback(&d->list[d->count - 1].addr, NETIO_IPV6, port);
        if (d->count < NETIO_RESOLVE_MAX)
            netio_addr_loopback(&d->list[d->count++].addr, NETIO_IPV4, port);
    }
    netio__dial_go(c);
}

static size_t netio__text_size(const char *text) { return text ? strlen(text) + 1 : 0; }

static char *netio__text_keep(char **at, const char *text)
{
    size_t size = netio__text_size(text);
    char *kept = *at;
    if (!text) return NULL;
    memcpy(kept, text, size);
    *at += size;
    return kept;
}

// With a copy of all that the options point to.
static netio__dial *netio__dial_make(const netio_socket_opts *o)
{
    size_t asks = 1 + o->fallback_count, texts = netio__text_size(o->local);
    for (size_t i = 0; i < o->setting_count; i++) texts += netio__text_size(o->settings[i].text);
    size_t settings = o->setting_count * sizeof *o->settings;
    size_t size = sizeof(netio__dial) + asks * sizeof(netio__ask) + settings + texts;
    netio__dial *d = (netio__dial *)NETIO_MALLOC(size);
    if (!d) return NULL;
    memset(d, 0, size);
    d->o = *o;
    d->o.errors = NULL;
    d->o.error_cap = 0;
    d->asks = (netio__ask *)(void *)(d + 1);
    netio_setting *kept = (netio_setting *)(void *)(d->asks + asks);
    char *at = (char *)(kept + o->setting_count);
    if (o->setting_count) memcpy(kept, o->settings, settings);
    d->o.settings = kept;
    for (size_t i = 0; i < o->setting_count; i++)
        kept[i].text = netio__text_keep(&at, o->settings[i].text);
    d->o.local = netio__text_keep(&at, o->local);
    d->stagger_us = (uint64_t)(o->stagger_ms ? o->stagger_ms : 250) * 1000u;
    return d;
}

static int netio__dial_ask(netio__conn *c, const char *address)
{
    netio__dial *d = c->cold->dial;
    netio_resolve_opts how = d->o.resolve;
    netio__ask *ask = &d->asks[d->ask_count];
    if (how.family == 0) how.family = d->o.family;
    ask->c = c;
    int err =
        netio_lookup_start(&ask->lookup, c->node.loop, address, &how, -1, netio__dial_answer, ask);
    if (err < 0) return err;
    d->ask_count++;
    d->asking++;
    return 0;
}

// The host of "host:port", for filters to check.
static int netio__dial_name(netio__cold *cold, const char *address, const char *name)
{
    netio_buf host, port;
    if (name) {
        host.data = name;
        host.len = strlen(name);
    } else if (netio_addr_split(&host, &port, address, strlen(address)) < 0) {
        return 0; // a path
    }
    cold->name = (char *)NETIO_MALLOC(host.len + 1);
    if (!cold->name) return NETIO_ENOMEM;
    netio__text(cold->name, host.len + 1, 0, (const char *)host.data, host.len);
    return 0;
}

static int netio__tunnel_push(netio__conn *c, const char *proxy, const char **address);

static int netio__dial_start(netio__conn *c, const char *address, const netio_dial_opts *o)
{
    netio__cold *cold = netio__cold_of(c);
    if (!cold) return NETIO_ENOMEM;
    cold->dial = netio__dial_make(&o->socket);
    if (!cold->dial) return NETIO_ENOMEM;
    cold->deadline_us = o->timeout_ms < 0
                            ? NETIO__NEVER_US
                            : netio__in_ms(c->node.loop, netio__or_default(o->timeout_ms, 30000));
    int err = netio__dial_name(cold, address, o->server_name);
    if (err == 0 && c->shape->filter.ops) err = netio__filter_push(c, c->shape->filter);
    if (err == 0) err = netio__framing_start(c);
    if (err == 0 && o->proxy) err = netio__tunnel_push(c, o->proxy, &address);
    if (err == 0) err = netio__dial_ask(c, address);
    for (size_t i = 0; err == 0 && i < o->socket.fallback_count; i++) {
        int more = netio__dial_ask(c, o->socket.fallback[i]);
        if (more == NETIO_EINVAL || more == NETIO_ENOMEM) err = more;
    }
    if (err == 0) netio__conn_arm(c);
    if (err == 0 && c->state == NETIO__OVER) err = NETIO_ENOMEM; // no timer
    return err;
}

static netio_dial_opts netio__no_dial_opts; // all zero, never written

NETIO_API int netio_conn_dial(netio_conn *out, netio_loop *loop, const char *address,
                              const netio_handler *handler, const netio_dial_opts *opts)
{
    const netio_dial_opts *o = opts ? opts : &netio__no_dial_opts;
    netio__shape *shape;
    int type = o->socket.type;
    if (!loop || !address || o->socket.stagger_ms < 0) return NETIO_EINVAL;
    if (type && type != NETIO_STREAM) return NETIO_EINVAL; // writes are gathered
    if (o->server_name && strlen(o->server_name) > 255) return NETIO_EINVAL;
    if (loop->destroying || loop->finishing) return NETIO_ECANCELED;
    netio__loop_tick(loop);
    int err = netio__shape_make(&shape, &o->conn, NULL);
    if (err < 0) return err;
    netio__conn *c = netio__conn_make(loop, shape, handler, o->conn.user);
    netio__shape_unref(shape);
    if (!c) return NETIO_ENOMEM;
    c->state = NETIO__DIALING;
    c->flags |= NETIO__DIALED;
    err = netio__dial_start(c, address, o);
    if (err < 0) {
        netio__unwork(&c->node);
        netio__conn_unmake(c);
        return err;
    }
    c->flags |= NETIO__HANDED;
    if (out) *out = netio__conn_handle(c);
    return 0;
}

// --- adopting, giving back, pairs ---------------------------------------------------------------

static int netio__keep_unread(netio__conn *c, const netio_conn_opts *o)
{
    if (o->unread_len == 0) return 0;
    if (!o->unread) return NETIO_EINVAL;
    int err = netio__keep(c, o->unread, o->unread_len);
    if (err == 0) c->flags |= NETIO__TELL_KEPT;
    if (err == 0 && c->cold->outer) c->cold->kept_raw = true;
    return err;
}

static int netio__conn_prepare(netio__conn **out, netio_loop *loop, const netio_handler *handler,
                               const netio_conn_opts *o)
{
    netio__shape *shape;
    int err = netio__shape_make(&shape, o, NULL);
    if (err < 0) return err;
    netio__conn *c = netio__conn_make(loop, shape, handler, o->user);
    netio__shape_unref(shape);
    if (!c) return NETIO_ENOMEM;
    if (o->filter.ops) err = netio__filter_push(c, o->filter);
    if (err == 0) err = netio__framing_start(c);
    if (err == 0) err = netio__keep_unread(c, o);
    if (err < 0) netio__conn_unmake(c);
    else *out = c;
    return err;
}

NETIO_API int netio_conn_adopt(netio_conn *out, netio_loop *loop, netio_socket s,
                               const netio_handler *handler, const netio_conn_opts *opts)
{
    const netio_conn_opts *o = opts ? opts : &netio__no_conn_opts;
    netio_addr peer;
    netio__conn *c;
    unsigned found = 0;
    if (!loop) return NETIO_EINVAL;
    if (!loop->poller) return NETIO_ENOTSUP;
    if (loop->destroying) return NETIO_ECANCELED;
    int err = netio_peer_addr(s, &peer);
    if (err == 0) err = netio_adopt(s, &found);
    if (err < 0) return err;
    netio__loop_tick(loop);
    err = netio__conn_prepare(&c, loop, handler, o);
    if (err == 0) {
        err = netio__peer_keep(c, &peer);
        if (err < 0) netio__conn_unmake(c);
    }
    if (err < 0) {
        netio_release(s, found);
        return err;
    }
    c->cold->found = found;
    c->flags |= NETIO__ADOPTED | NETIO__SHARED | NETIO__HANDED;
    c->node.io.socket = s;
    netio_set_option(s, NETIO_OPT_NODELAY, 1);
    netio__conn_begin(c);
    if (out) *out = netio__conn_handle(c);
    return 0;
}

static ptrdiff_t netio__frames_detach(netio__conn *c, netio_socket *out, void *unread, size_t cap);

static int netio__detach_end(netio__conn *c, netio_socket *out)
{
    int err = netio__ops(&c->node)->detach(&c->node, out);
    if (err < 0) return err;
    if (c->flags & NETIO__ADOPTED) netio_release(*out, c->cold->found);
    c->flags |= NETIO__GONE;
    return 0;
}

NETIO_API ptrdiff_t netio_conn_detach(netio_conn h, netio_socket *out, void *unread, size_t cap)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    netio_loop *loop = c->node.loop;
    if (!out || (!unread && cap)) return NETIO_EINVAL;
    if (c->state != NETIO__OPEN || c->err || c->out ||
        (c->cold && (c->cold->inner || c->cold->relay)))
        return NETIO_EBUSY; // with an error: what was queued is lost, and on_close will say so
    if (c->cold && c->cold->framed) return netio__frames_detach(c, out, unread, cap);
    bool lending = loop->lending == &c->node;
    size_t kept = lending ? loop->kept : netio__kept_len(c);
    if (kept > cap) return NETIO_ENOSPC;
    int err = netio__detach_end(c, out);
    if (err < 0) return err;
    if (kept && lending) memcpy(unread, loop->lent_data + loop->lent - kept, kept);
    else if (kept) memcpy(unread, c->cold->kept + c->cold->kept_off, kept);
    netio__conn_end(c, 0, NETIO_STAGE_NONE);
    return (ptrdiff_t)kept;
}

static int netio__memory_attach(netio_loop *loop);
static int netio__memory_pair(netio__node *a, netio__node *b, const netio_link *link);

static netio_pair_opts netio__no_pair_opts; // all zero, never written

NETIO_API int netio_conn_pair(netio_conn out[2], netio_loop *loop, const netio_handler *a,
                              const netio_handler *b, const netio_pair_opts *opts)
{
    const netio_pair_opts *o = opts ? opts : &netio__no_pair_opts;
    netio__conn *c[2];
    if (!loop) return NETIO_EINVAL;
    if (loop->destroying) return NETIO_ECANCELED;
    netio__loop_tick(loop);
    int err = netio__memory_attach(loop);
    if (err == 0) err = netio__conn_prepare(&c[0], loop, a, &o->a);
    if (err < 0) return err;
    err = netio__conn_prepare(&c[1], loop, b, &o->b);
    if (err < 0) {
        netio__conn_unmake(c[0]);
        return err;
    }
    c[0]->node.engine = c[1]->node.engine = loop->poller ? 1 : 0;
    err = netio__memory_pair(&c[0]->node, &c[1]->node, &o->link);
    for (int i = 0; i < 2; i++) {
        if (err < 0) {
            netio__conn_unmake(c[i]);
            continue;
        }
        c[i]->flags |= NETIO__HANDED | (i == 0 ? (uint32_t)NETIO__DIALED : 0);
        netio__conn_begin(c[i]);
        if (out) out[i] = netio__conn_handle(c[i]);
    }
    return err;
}

// --- relays ------------------------------------------------------------------------------------

#if NETIO__LINUX && defined(SPLICE_F_MOVE) && defined(F_SETPIPE_SZ)
// Through a pipe, without a copy. NETIO_ENOTSUP: not with these two.
static ptrdiff_t netio__os_splice(int from, int to, size_t len, bool to_socket)
{
    netio__os_sigpipe guard;
    ssize_t n;
    if (to_socket) netio__os_sigpipe_block(&guard);
    do n = splice(from, NULL, to, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (n < 0 && errno == EINTR);
    if (to_socket) netio__os_sigpipe_restore(&guard, n);
    if (n >= 0) return (ptrdiff_t)n;
    return errno == EINVAL || errno == ENOSYS ? (ptrdiff_t)NETIO_ENOTSUP : netio__os_send_fail();
}

// As large as an unprivileged process may have it, so that one wakeup moves as much as one read.
static int netio__os_splice_pipe(int out[2])
{
    int err = netio__os_pipe(out);
    if (err == 0) fcntl(out[1], F_SETPIPE_SZ, 256 * 1024);
    return err;
}
#else
static ptrdiff_t netio__os_splice(int from, int to, size_t len, bool to_socket)
{
    (void)from, (void)to, (void)len, (void)to_socket;
    return NETIO_ENOTSUP;
}

static int netio__os_splice_pipe(int out[2])
{
    out[0] = out[1] = -1;
    return NETIO_ENOTSUP;
}
#endif

NETIO_API int netio_conn_relay(netio_conn ha, netio_conn hb)
{
    netio__conn *side[2];
    netio__relay *relay[2];
    side[0] = netio__conn_live(ha);
    side[1] = netio__conn_live(hb);
    if (!side[0] || !side[1]) return NETIO_ESTALE;
    if (side[0] == side[1] || side[0]->node.loop != side[1]->node.loop) return NETIO_EINVAL;
    if (!netio__cold_of(side[0]) || !netio__cold_of(side[1])) return NETIO_ENOMEM;
    if (side[0]->cold->relay || side[1]->cold->relay) return NETIO_EBUSY;
    for (int i = 0; i < 2; i++) {
        int err = netio_conn_set_framing(netio__conn_handle(side[i]), netio__no_framing);
        if (err < 0) return err;
    }
    relay[0] = (netio__relay *)NETIO_MALLOC(sizeof *relay[0]);
    relay[1] = (netio__relay *)NETIO_MALLOC(sizeof *relay[1]);
    if (!relay[0] || !relay[1]) {
        NETIO_FREE(relay[0]);
        NETIO_FREE(relay[1]);
        return NETIO_ENOMEM;
    }
    for (int i = 0; i < 2; i++) {
        memset(relay[i], 0, sizeof *relay[i]);
        relay[i]->pipe[0] = relay[i]->pipe[1] = -1;
        relay[i]->peer = side[1 - i];
        side[i]->cold->relay = relay[i];
        side[i]->flags &= ~(uint32_t)(NETIO__PAUSED | NETIO__EOF_TOLD); // the relay hears it, too
        side[i]->flags |= NETIO__TELL_KEPT;
        netio__work(&side[i]->node);
    }
    return 0;
}

// Whether the kernel may move the bytes of `c` by itself.
static bool netio__relay_direct(const netio__conn *c)
{
    const netio__relay *relay = c->cold ? c->cold->relay : NULL;
    const netio__conn *peer = relay ? relay->peer : NULL;
    return relay && !relay->copies && c->state == NETIO__OPEN && peer->state == NETIO__OPEN &&
           !c->node.engine && !peer->node.engine && !c->cold->inner && !peer->cold->inner &&
           !c->cold->kept_len && !c->shape->read_rate && !peer->shape->write_rate && !peer->out &&
           !(peer->flags & NETIO__SHUT) && c->node.loop->poller;
}

// What of `c` is in the kernel's pipe goes on to the peer; `c` is not read meanwhile.
static void netio__relay_push(netio__conn *c)
{
    netio__relay *relay = c->cold->relay;
    netio__conn *peer = relay->peer;
    size_t before = relay->in_pipe;
    if (before == 0) return;
    while (relay->in_pipe && !(peer->flags & NETIO__BLOCKED) &&
           (peer->state == NETIO__OPEN || peer->state == NETIO__CLOSING)) {
        ptrdiff_t n =
            netio__os_splice(relay->pipe[0], (int)peer->node.io.socket, relay->in_pipe, true);
        if (!netio__send_result(peer, n)) break;
        netio__sent_count(peer, (size_t)n);
        relay->in_pipe -= (size_t)n;
    }
    if (relay->in_pipe == before && (c->flags & NETIO__PAUSED)) return; // or no turn would rest
    if (relay->in_pipe) c->flags |= NETIO__PAUSED;
    else netio__conn_go_on(c);
    netio__work(&c->node);
    netio__work(&peer->node);
}

// Bytes from the socket of `c` into the pipe. As netio__os_recv; NETIO_ENOTSUP: copy.
static ptrdiff_t netio__relay_pull(netio__conn *c)
{
    netio__relay *relay = c->cold->relay;
    ptrdiff_t n = NETIO_ENOTSUP;
    if (relay->pipe[0] >= 0 || netio__os_splice_pipe(relay->pipe) == 0)
        n = netio__os_splice((int)c->node.io.socket, relay->pipe[1], 1024 * 1024, false);
    if (n == NETIO_ENOTSUP) relay->copies = true;
    if (n > 0) relay->in_pipe += (size_t)n;
    return n;
}

static void netio__relay_free(netio__relay *relay)
{
    for (int i = 0; i < 2; i++)
        if (relay->pipe[i] >= 0) netio__os_close((netio_socket)relay->pipe[i]);
    NETIO_FREE(relay);
}

// Bytes of `c` for the other; NULL: its end.
static void netio__relay_data(netio__conn *c, const void *data, size_t len)
{
    netio__conn *peer = c->cold->relay->peer;
    netio_buf buf;
    buf.data = data;
    buf.len = len;
    if (!data) {
        netio_conn_shutdown(netio__conn_handle(peer));
        return;
    }
    if (peer->state >= NETIO__CLOSING) return;
    // Taken whatever the limit: the source pauses above the mark.
    int err = peer->flags & NETIO__SHUT ? (int)NETIO_EPIPE : netio__write_taken(peer, &buf, 1, len);
    if (err < 0) netio__conn_end(c, err, NETIO_STAGE_WRITE);
    else if (peer->flags & NETIO__CONGESTED) c->flags |= NETIO__PAUSED;
}

// One side is over.
static void netio__relay_end(netio__conn *c)
{
    netio__relay *mine = c->cold->relay;
    netio__conn *peer = mine->peer;
    netio__relay *theirs = peer->cold->relay;
    c->cold->relay = peer->cold->relay = NULL;
    netio__relay_free(mine);
    netio__relay_free(theirs);
    if (peer->state == NETIO__OVER) return;
    if (c->err < 0 || peer->state < NETIO__OPEN)
        netio__conn_end(peer, NETIO_ECONNABORTED, NETIO_STAGE_NONE);
    else if (peer->state == NETIO__OPEN) netio__conn_close_start(peer);
}

// --- the end of a turn, and timers --------------------------------------------------------------

static void netio__tell_drain(netio__conn *c)
{
    c->flags &= ~(uint32_t)NETIO__TELL_DRAIN;
    if (c->cold && c->cold->relay) {
        netio__conn_go_on(c->cold->relay->peer);
    } else if (c->handler->on_drain) {
        c->node.loop->calls++;
        c->handler->on_drain(netio__conn_handle(c));
    }
}

// Kept bytes again: through the filters if they have not passed them.
static void netio__tell_kept(netio__conn *c)
{
    netio__cold *cold = c->cold;
    c->flags &= ~(uint32_t)NETIO__TELL_KEPT;
    if (cold && cold->framed && netio__frames_wait(c)) netio__frames(c, NULL, 0);
    if (c->state >= NETIO__CLOSING || (c->flags & NETIO__PAUSED)) return;
    if (cold && cold->kept_len == 0) cold->kept_raw = false;
    if (!cold || cold->kept_len == 0) return;
    if (!cold->kept_raw) {
        netio__hand_kept(c);
        return;
    }
    uint8_t *kept = cold->kept;
    size_t off = cold->kept_off, len = cold->kept_len;
    cold->kept = NULL;
    cold->kept_off = cold->kept_len = cold->kept_cap = 0;
    cold->kept_raw = false;
    int err = netio__filter_take(cold->outer, kept + off, len);
    NETIO_FREE(kept);
    if (err < 0) netio__conn_fail(c, err, NETIO_STAGE_READ);
}

// Callbacks that had to wait, in the order in which they happened.
static void netio__conn_tell(netio__conn *c)
{
    if (c->state == NETIO__OPENING && c->cold && c->cold->kept_raw) netio__tell_kept(c);
    if (c->state != NETIO__OPEN || (c->flags & NETIO__CLOSE_ASKED)) return;
    if (c->flags & NETIO__TELL_OPEN) netio__tell_open(c);
    if (c->state == NETIO__OPEN && (c->flags & NETIO__TELL_SECURE)) netio__tell_secure(c);
    if (c->state == NETIO__OPEN && (c->flags & NETIO__TELL_KEPT) &&
        !(c->flags & (NETIO__PAUSED | NETIO__EOF_TOLD)))
        netio__tell_kept(c);
    if (c->state == NETIO__OPEN && !(c->flags & (NETIO__PAUSED | NETIO__EOF_TOLD)) &&
        (c->flags & NETIO__EOF)) {
        if (netio__kept_len(c)) netio__tell_kept(c); // once more: no more will come
        if (c->state == NETIO__OPEN && !(c->flags & NETIO__PAUSED) && netio__frames_end(c)) {
            netio__kept_free(c);
            netio__tell_eof(c);
        }
    }
    if (c->state == NETIO__OPEN && (c->flags & NETIO__TELL_DRAIN) && !(c->flags & NETIO__CONGESTED))
        netio__tell_drain(c);
}

static void netio__conn_want(netio__conn *c)
{
    unsigned events = netio__appetite(&c->node) ? (unsigned)NETIO_EV_READ : 0;
    if ((c->flags & NETIO__BLOCKED) && !(c->flags & NETIO__WRITE_RATE)) events |= NETIO_EV_WRITE;
    int err = netio__ops(&c->node)->want(&c->node, events);
    if (err < 0) netio__conn_end(c, err, NETIO_STAGE_READ);
}

static void netio__conn_work(netio__conn *c)
{
    if (netio__is_plain(c) && netio__flush_plain(c)) {
        netio__conn_want(c);
        if (c->state == NETIO__OVER) netio__conn_over(c);
        return;
    }
    if (c->state != NETIO__OVER) netio__conn_tell(c);
    if (c->state >= NETIO__OPEN && c->state <= NETIO__CLOSING) netio__conn_flush(c);
    if (c->state == NETIO__OPEN && (c->flags & NETIO__SHUT) && (c->flags & NETIO__EOF_TOLD) &&
        netio__nothing_written(c)) {
        if (c->flags & NETIO__FIN_SENT) netio__conn_end(c, 0, NETIO_STAGE_NONE);
        else netio__conn_close_start(c); // under filters FIN is still to be sent
    }
    if (c->state == NETIO__OPENING) netio__conn_flush(c); // filters' first words
    if (c->state > NETIO__DIALING && c->state < NETIO__OVER) netio__conn_want(c);
    if (c->state == NETIO__OVER) netio__conn_over(c);
}

// NETIO_TIMEOUT_IDLE and _WRITE ask the handler.
static void netio__conn_ask(netio__conn *c, int which)
{
    netio_loop *loop = c->node.loop;
    if (c->state != NETIO__OPEN || (c->flags & NETIO__CLOSE_ASKED) || !c->handler->on_timeout) {
        netio__conn_timed_out(c, which);
        return;
    }
    if (which == NETIO_TIMEOUT_IDLE) c->active = netio__tick(loop);
    else c->progress = netio__tick(loop);
    loop->calls++;
    c->handler->on_timeout(netio__conn_handle(c), which);
    netio__conn_arm(c);
}

// The OS's own buffer is large, so that for a long time a slow reader looks like one that does not
// read: until a part of the buffer is free no byte is taken. What it still holds tells them apart.
// Returns whether to wait on.
static bool netio__write_moves(netio__conn *c)
{
    netio__cold *cold = netio__cold_of(c);
    netio_socket s;
    int held = -1;
    if (!cold) return false;
    if (netio__ops(&c->node)->socket(&c->node, &s) == 0 &&
        netio_get_option(s, NETIO_OPT_UNSENT, &held) < 0)
        held = -1;
    if (netio__write_asked(c)) {
        if (held < 0 || held >= cold->unsent) return false;
        c->progress = netio__tick(c->node.loop);
    }
    cold->unsent = held;
    cold->unsent_since = c->progress;
    cold->unsent_asked = true;
    return true;
}

static void netio__rates_go(netio__conn *c)
{
    netio__cold *cold = c->cold;
    uint64_t now = c->node.loop->now_us;
    if (!cold) return;
    if ((c->flags & NETIO__READ_RATE) && cold->rates[0].ready_us <= now)
        c->flags &= ~(uint32_t)NETIO__READ_RATE;
    if ((c->flags & NETIO__WRITE_RATE) && cold->rates[1].ready_us <= now) {
        c->flags &= ~(uint32_t)NETIO__WRITE_RATE;
        c->progress = netio__tick(c->node.loop); // no stall: it was held back
    }
    if (cold->inner) netio__filters_timer(c);
    netio__work(&c->node);
}

static void netio__conn_timer(netio__conn *c)
{
    int which;
    uint64_t now = c->node.loop->now_us;
    if (c->state == NETIO__DIALING && now < c->cold->deadline_us) {
        netio__dial_go(c);
    } else if (netio__conn_deadline(c, &which) > now) {
        netio__conn_arm(c); // something happened meanwhile
    } else if (c->err && c->state == NETIO__OPEN) {
        netio__conn_end(c, c->err, c->stage);
    } else if (which == NETIO_TIMEOUT_WRITE && netio__write_moves(c)) {
        netio__conn_arm(c);
    } else if (which == NETIO_TIMEOUT_IDLE || which == NETIO_TIMEOUT_WRITE) {
        netio__conn_ask(c, which);
    } else if (which) {
        if (c->cold && c->cold->dial) netio__dial_stop(c, NETIO_ETIMEDOUT);
        netio__conn_timed_out(c, which);
    } else {
        netio__rates_go(c);
        netio__conn_arm(c);
    }
}

// In the child of a fork: the memory alone.
static void netio__conn_forget(netio__conn *c)
{
    netio__chunks_free(c->out);
    c->out = NULL;
    netio__gate_leave(c);
    if (c->cold) {
        NETIO_FREE(c->cold->dial);
        if (c->cold->relay) netio__relay_free(c->cold->relay);
        c->cold->dial = NULL;
        netio__cold_free(c);
    }
    netio__shape_unref(c->shape);
}

static void netio__listener_forget(netio__listener *l)
{
    for (size_t i = 0; i < l->worker_count; i++) netio__worker_free(l->workers[i]);
    NETIO_FREE(l->workers);
    netio__shape_unref(l->shape);
}

// --- asking and setting --------------------------------------------------------------------------

NETIO_API int netio_conn_set_handler(netio_conn h, const netio_handler *handler)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    c->handler = handler ? handler : &netio__no_handler;
    return 0;
}

NETIO_API int netio_conn_set_timeout(netio_conn h, int which, int timeout_ms)
{
    static const int defaults[] = {0, -1, 30000, 30000, 10000, 2000};
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    if (which < NETIO_TIMEOUT_IDLE || which > NETIO_TIMEOUT_CLOSE) return NETIO_EINVAL;
    netio__shape *own = netio__shape_own(c);
    if (!own) return NETIO_ENOMEM;
    own->timeout_ms[which] = timeout_ms ? timeout_ms : defaults[which];
    netio__loop_tick(c->node.loop);
    if (which == NETIO_TIMEOUT_IDLE) c->active = netio__tick(c->node.loop);
    if (which == NETIO_TIMEOUT_CONNECT && c->cold && c->state <= NETIO__OPENING)
        c->cold->deadline_us = own->timeout_ms[which] < 0
                                   ? NETIO__NEVER_US
                                   : c->opened_us + (uint64_t)own->timeout_ms[which] * 1000u;
    netio__conn_arm(c);
    return 0;
}

NETIO_API int netio_conn_set_rate(netio_conn h, size_t read_rate, size_t write_rate)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    netio__shape *own = netio__shape_own(c);
    if (!own) return NETIO_ENOMEM;
    own->read_rate = read_rate;
    own->write_rate = write_rate;
    c->flags &= ~(uint32_t)(NETIO__READ_RATE | NETIO__WRITE_RATE | NETIO__RATED);
    if (read_rate || write_rate) c->flags |= NETIO__RATED;
    netio__work(&c->node);
    return 0;
}

NETIO_API int netio_conn_set_marks(netio_conn h, size_t high_mark, size_t low_mark, size_t max)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    max = netio__size_or(max, 1024 * 1024);
    high_mark = netio__size_or(high_mark, max < 64 * 1024 ? max : 64 * 1024);
    low_mark = netio__size_or(low_mark, high_mark / 4);
    if (!netio__marks_ok(high_mark, low_mark, max)) return NETIO_EINVAL;
    netio__shape *own = netio__shape_own(c);
    if (!own) return NETIO_ENOMEM;
    own->high = high_mark;
    own->low = low_mark;
    own->queue_max = max;
    netio__level_rose(c);
    netio__level_fell(c);
    return 0;
}

NETIO_API void *netio_conn_user(netio_conn h)
{
    netio__conn *c = netio__conn_known(h);
    return c ? c->user : NULL;
}

NETIO_API void netio_conn_set_user(netio_conn h, void *user)
{
    netio__conn *c = netio__conn_known(h);
    if (c) c->user = user;
}

NETIO_API netio_loop *netio_conn_loop(netio_conn h)
{
    netio__conn *c = netio__conn_known(h);
    return c ? c->node.loop : NULL;
}

NETIO_API bool netio_conn_alive(netio_conn h) { return netio__conn_live(h) != NULL; }

NETIO_API bool netio_conn_same(netio_conn a, netio_conn b)
{
    return a.ptr == b.ptr && a.gen == b.gen;
}

NETIO_API uint64_t netio_conn_id(netio_conn c) { return c.gen; }

static int netio__conn_name(netio_conn h, netio_addr *out, bool peer)
{
    netio__conn *c = netio__conn_known(h);
    if (!c) return NETIO_ESTALE;
    if (peer && c->cold && c->cold->peer) {
        *out = *c->cold->peer;
        return 0;
    }
    if (!netio__has_end(c)) return NETIO_ENOTCONN;
    return netio__ops(&c->node)->name(&c->node, out, peer);
}

NETIO_API int netio_conn_peer(netio_conn h, netio_addr *out)
{
    return netio__conn_name(h, out, true);
}

NETIO_API int netio_conn_local(netio_conn h, netio_addr *out)
{
    return netio__conn_name(h, out, false);
}

NETIO_API const char *netio_conn_server_name(netio_conn h)
{
    netio__conn *c = netio__conn_known(h);
    return c && c->cold && c->cold->name ? c->cold->name : "";
}

NETIO_API int netio_conn_socket(netio_conn h, netio_socket *out)
{
    netio__conn *c = netio__conn_known(h);
    if (!c) return NETIO_ESTALE;
    if (!netio__has_end(c)) return NETIO_ENOTCONN;
    int err = netio__ops(&c->node)->socket(&c->node, out);
    if (err == 0) c->flags |= NETIO__SHARED;
    return err;
}

static void netio__frames_count(const netio__conn *c, netio_stats *out);

NETIO_API int netio_conn_stats(netio_conn h, netio_stats *out)
{
    netio__conn *c = netio__conn_known(h);
    if (!c) return NETIO_ESTALE;
    netio_loop *loop = c->node.loop;
    memset(out, 0, sizeof *out);
    out->bytes_in = c->bytes_in;
    out->bytes_out = c->bytes_out;
    out->reads = c->reads;
    out->writes = c->writes;
    out->opened_ms = c->opened_us / 1000u;
    out->active_ms = loop->now_us / 1000u - (uint32_t)(netio__tick(loop) - c->active);
    netio__frames_count(c, out);
    return 0;
}

NETIO_API int netio_conn_error(netio_conn h, netio_error *out)
{
    netio__conn *c = netio__conn_known(h);
    netio_addr peer;
    if (!c) return NETIO_ESTALE;
    if (c->err >= 0) return NETIO_ENOENT;
    if (c->cold && c->cold->error) {
        *out = *c->cold->error;
        return 0;
    }
    memset(&peer, 0, sizeof peer);
    netio__conn_name(h, &peer, true);
    const char *name = c->cold && c->cold->name ? c->cold->name : "connection";
    netio__error_set(out, c->err, c->stage, c->os_code, &peer, peer.len ? NULL : name);
    out->timeout = c->timeout;
    return 0;
}

NETIO_API size_t netio_conn_attempts(netio_conn h, netio_error *out, size_t cap)
{
    netio__conn *c = netio__conn_known(h);
    const netio__dial *d = c && c->cold ? c->cold->dial : NULL;
    size_t n = 0;
    for (; d && n < d->started && n < cap; n++)
        netio__error_set(&out[n], d->list[n].err, NETIO_STAGE_CONNECT, d->list[n].os_code,
                         &d->list[n].addr, NULL);
    return n;
}

NETIO_API void netio_conn_each(netio_loop *loop, void (*visit)(void *user, netio_conn c),
                               void *user)
{
    uint64_t last = loop->next_gen;
    netio__node *n;
    for (size_t i = 0; (n = netio__slab_at(&loop->slabs[NETIO__CONN], i)) != NULL; i++) {
        const netio__conn *c = netio__conn_of(n);
        if (n->gen && n->gen <= last && c->state == NETIO__OPEN && (c->flags & NETIO__HANDED) &&
            !(c->flags & NETIO__CLOSE_ASKED))
            visit(user, netio__conn_handle(c));
    }
}

//================================================================================================
// >>framed.c                                        frames on connections, PROXY headers, tunnels
//
// With framing a connection has a decoder, and what on_data would get is fed to it. Frames that the
// handler cannot take yet (it paused, or its queue is high) stay in there. The PROXY header of a
// listener and the proxy of a dial are filters, nearest to the wire.
//================================================================================================

typedef struct netio__framed {
    netio_decoder d;
    uint64_t in, out;
    bool running;    // inside netio__frames: what would free the decoder waits for its end
    bool restart;    // the bytes behind this frame go back into what is kept
    bool drop;       // and there is no framing any more
    bool said_close; // WebSocket: a close frame was sent
} netio__framed;

static int netio__framing_set(netio__conn *c, netio_framing framing)
{
    netio__cold *cold = netio__cold_of(c);
    if (!cold) return NETIO_ENOMEM;
    netio__framed *f = (netio__framed *)NETIO_MALLOC(sizeof *f);
    if (!f) return NETIO_ENOMEM;
    memset(f, 0, sizeof *f);
    int err = netio_decoder_init(&f->d, framing, NULL, 0);
    if (err < 0) NETIO_FREE(f);
    else cold->framed = f;
    return err;
}

static int netio__framing_start(netio__conn *c)
{
    return c->shape->framing.format ? netio__framing_set(c, c->shape->framing) : 0;
}

static void netio__framed_free(netio__conn *c)
{
    if (!c->cold->framed) return;
    netio_decoder_free(&c->cold->framed->d);
    NETIO_FREE(c->cold->framed);
    c->cold->framed = NULL;
}

static bool netio__frames_wait(const netio__conn *c)
{
    netio_buf rest[2];
    return c->cold && c->cold->framed && netio_decoder_rest(&c->cold->framed->d, rest) > 0;
}

// The decoder's bytes go before what is kept; the decoder begins anew, or ends.
static int netio__framing_settle(netio__conn *c)
{
    netio__cold *cold = c->cold;
    netio__framed *f = cold->framed;
    netio_buf rest[2];
    size_t pieces = netio_decoder_rest(&f->d, rest), total = cold->kept_len, at = 0;
    for (size_t i = 0; i < pieces; i++) total += rest[i].len;
    uint8_t *all = total ? (uint8_t *)NETIO_MALLOC(total) : NULL;
    if (total && !all) return NETIO_ENOMEM; // nothing has moved
    for (size_t i = 0; i < pieces; at += rest[i++].len) memcpy(all + at, rest[i].data, rest[i].len);
    if (cold->kept_len) memcpy(all + at, cold->kept + cold->kept_off, cold->kept_len);
    NETIO_FREE(cold->kept);
    cold->kept = all;
    cold->kept_off = 0;
    cold->kept_len = cold->kept_cap = total;
    if (cold->kept_len) c->flags |= NETIO__TELL_KEPT;
    if (cold->kept_len && f->restart && cold->outer) cold->kept_raw = true; // a filter was put on
    netio__work(&c->node);
    f->restart = false;
    if (f->drop) {
        netio__framed_free(c);
        return 0;
    }
    netio_framing framing = f->d.framing;
    netio_decoder_free(&f->d);
    netio_decoder_init(&f->d, framing, NULL, 0);
    return 0;
}

// The first filter is put on: bytes that were not handed out are to pass it.
static int netio__frames_restart(netio__conn *c)
{
    netio__framed *f = c->cold->framed;
    if (!f || !netio__frames_wait(c)) return 0;
    f->restart = f->running;
    return f->running ? 0 : netio__framing_settle(c);
}

NETIO_API int netio_conn_set_framing(netio_conn h, netio_framing framing)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    netio__framed *f = c->cold ? c->cold->framed : NULL;
    if (!f && !framing.format) return 0;
    if (!f) {
        int err = netio__framing_set(c, framing);
        if (err == 0 && netio__kept_len(c)) c->flags |= NETIO__TELL_KEPT;
        if (err == 0) netio__work(&c->node);
        return err;
    }
    f->drop = !framing.format;
    if (f->drop) return f->running ? 0 : netio__framing_settle(c);
    f->said_close = false;
    c->flags |= NETIO__TELL_KEPT;
    netio__work(&c->node);
    return netio_decoder_set_framing(&f->d, framing);
}

// --- sending -----------------------------------------------------------------------------------

static void netio__frame_sent(netio__framed *f, const netio_frame *frame);

// Formats that change the payload itself: into a chunk, then as any other bytes.
static int netio__frame_copy(netio__conn *c, const netio_framing *framing, const netio_frame *frame)
{
    netio_loop *loop = c->node.loop;
    size_t bound = netio_encode_bound(framing, frame->len);
    netio__chunk *k = netio__chunk_make(loop, bound);
    if (!k) return NETIO_ENOMEM;
    ptrdiff_t n = netio_encode_into(k->data, k->cap, framing, frame);
    netio_buf buf;
    buf.data = k->data;
    buf.len = n > 0 ? (size_t)n : 0;
    int err = n < 0 ? (int)n : netio__write(c, &buf, 1);
    netio__chunk_drop(loop, k);
    return err;
}

static int netio__frame_out(netio__conn *c, const netio_frame *frame)
{
    netio__framed *f = c->cold ? c->cold->framed : NULL;
    netio_envelope env;
    netio_frame typed = *frame;
    netio_buf bufs[3];
    bufs[1].data = frame->data;
    bufs[1].len = frame->len;
    if (!f || f->drop) return netio__write(c, bufs + 1, 1);
    if (typed.type == 0) typed.type = f->d.framing.type;
    int err = netio_encode(&env, &f->d.framing, &typed);
    if (err == 0) {
        bufs[0].data = env.head;
        bufs[0].len = env.head_len;
        bufs[2].data = env.tail;
        bufs[2].len = env.tail_len;
        err = netio__write(c, bufs, 3);
    } else if (err == NETIO_ENOTSUP) {
        err = netio__frame_copy(c, &f->d.framing, &typed);
    }
    if (err < 0) return err;
    f->out++;
    netio__frame_sent(f, &typed);
    return 0;
}

NETIO_API int netio_conn_send(netio_conn h, const void *data, size_t len)
{
    netio_frame frame;
    memset(&frame, 0, sizeof frame);
    frame.data = (const uint8_t *)data;
    frame.len = len;
    return netio_conn_send_frame(h, &frame);
}

NETIO_API int netio_conn_send_frame(netio_conn h, const netio_frame *frame)
{
    netio__conn *c = netio__conn_live(h);
    if (!c) return NETIO_ESTALE;
    if (!frame || (!frame->data && frame->len)) return NETIO_EINVAL;
    const netio__framed *f = c->cold ? c->cold->framed : NULL;
    if (f && f->said_close) return NETIO_EPIPE; // RFC 6455 section 5.5.1: nothing follows a close
    return netio__frame_out(c, frame);
}

// --- receiving ---------------------------------------------------------------------------------

// What the connection does by itself about a frame, before and after the handler sees it.
#if !defined(NETIO_NO_WEBSOCKET)
static void netio__frame_sent(netio__framed *f, const netio_frame *frame)
{
    if (f->d.framing.format == NETIO_FORMAT_WEBSOCKET && frame->type == NETIO_WS_CLOSE)
        f->said_close = true;
}

static void netio__frame_answer(netio__conn *c, unsigned type, const void *data, size_t len)
{
    netio_frame frame;
    memset(&frame, 0, sizeof frame);
    frame.type = type;
    frame.data = (const uint8_t *)data;
    frame.len = len;
    netio__frame_out(c, &frame); // a full queue loses it, and is told by other means
}

static bool netio__is_ws(const netio__conn *c)
{
    return c->cold->framed->d.framing.format == NETIO_FORMAT_WEBSOCKET;
}

// Returns whether the connection is to be closed after it.
static bool netio__frame_react(netio__conn *c, const netio_frame *frame)
{
    if (!netio__is_ws(c) || c->cold->framed->said_close)
        return netio__is_ws(c) && frame->type == NETIO_WS_CLOSE;
    if (frame->type == NETIO_WS_PING)
        netio__frame_answer(c, NETIO_WS_PONG, frame->data, frame->len);
    if (frame->type != NETIO_WS_CLOSE) return false;
    netio__frame_answer(c, NETIO_WS_CLOSE, frame->data, frame->len < 2 ? 0 : 2); // its code
    return true;
}

static void netio__frame_refuse(netio__conn *c, int err)
{
    uint8_t payload[2];
    if (!netio__is_ws(c) || c->cold->framed->said_close) return;
    ptrdiff_t n = netio_ws_close_write(payload, sizeof payload, netio_ws_close_code_for(err), NULL);
    if (n > 0) netio__frame_answer(c, NETIO_WS_CLOSE, payload, (size_t)n);
}
#else
static void netio__frame_sent(netio__framed *f, const netio_frame *frame) { (void)f, (void)frame; }

static bool netio__frame_react(netio__conn *c, const netio_frame *frame)
{
    (void)c, (void)frame;
    return false;
}

static void netio__frame_refuse(netio__conn *c, int err) { (void)c, (void)err; }
#endif

// The handler's last word on a frame that cannot be read.
static void netio__frame_bad(netio__conn *c, uint64_t offset, int err)
{
    netio__framed *f = c->cold->framed;
    netio_frame frame;
    netio_buf rest[2];
    if (!c->handler->on_bad_frame || c->state != NETIO__OPEN) return;
    memset(&frame, 0, sizeof frame);
    frame.offset = offset;
    if (netio_decoder_rest(&f->d, rest) > 0) {
        frame.data = (const uint8_t *)rest[0].data;
        frame.len = rest[0].len;
    }
    f->running = true; // the bytes stay, even if the framing is changed now
    c->node.loop->calls++;
    c->handler->on_bad_frame(netio__conn_handle(c), &frame, err);
    f->running = false;
}

static void netio__frame_failed(netio__conn *c, int err)
{
    uint64_t offset = 0, size = 0;
    netio_addr peer;
    netio_error *error = (netio_error *)NETIO_MALLOC(sizeof *error);
    netio_decoder_blame(&c->cold->framed->d, &offset, &size);
    if (error) {
        bool known = netio_conn_peer(netio__conn_handle(c), &peer) == 0;
        netio__error_set(error, err, NETIO_STAGE_FRAME, 0, known ? &peer : NULL,
                         known ? NULL : "frame");
        error->offset = offset;
        error->size = size;
        NETIO_FREE(c->cold->error);
        c->cold->error = error;
    }
    c->err = (int16_t)err; // the cause, whatever the handler does about it
    c->stage = NETIO_STAGE_FRAME;
    netio__frame_bad(c, offset, err);
    if (c->state != NETIO__OPEN) return;
    netio__frame_refuse(c, err);
    netio__conn_fail(c, err, NETIO_STAGE_FRAME);
}

static bool netio__takes_frames(const netio__conn *c)
{
    bool high = (c->flags & NETIO__CONGESTED) && !c->shape->read_always;
    return c->state == NETIO__OPEN && !high && !(c->flags & (NETIO__PAUSED | NETIO__CLOSE_ASKED));
}

// Frames as long as the handler takes them. Returns what stopped it: 0 needs more bytes, 1 the
// handler, or an error of the decoder's.
static int netio__frames_run(netio__conn *c)
{
    netio__framed *f = c->cold->framed;
    netio_frame frame;
    while (netio__takes_frames(c)) {
        int r = netio_decoder_next(&f->d, &frame);
        if (r <= 0) return r;
        f->in++;
        bool over = netio__frame_react(c, &frame);
        if (c->handler->on_frame && c->state == NETIO__OPEN) {
            c->node.loop->calls++;
            c->handler->on_frame(netio__conn_handle(c), &frame);
        }
        if (over && c->state == NETIO__OPEN) netio__conn_close_start(c);
        if (f->restart || f->drop) return 1;
    }
    return 1;
}

static void netio__frames(netio__conn *c, const void *data, size_t len)
{
    netio__framed *f = c->cold->framed;
    int err = len ? netio_decoder_feed(&f->d, data, len) : 0;
    f->running = true;
    int r = err < 0 ? err : netio__frames_run(c);
    f->running = false;
    if (c->state == NETIO__OVER) return;
    if (f->restart || f->drop) err = netio__framing_settle(c);
    else if (r > 0 && c->state == NETIO__OPEN) err = netio_decoder_keep(&f->d);
    else err = r < 0 ? r : 0;
    if (err < 0 && c->cold->framed) netio__frame_failed(c, err);
    else if (err < 0) netio__conn_fail(c, err, NETIO_STAGE_READ);
}

// The peer sends no more: the last line, or the news that a frame was cut. Whether all is told.
static bool netio__frames_end(netio__conn *c)
{
    netio__framed *f = c->cold ? c->cold->framed : NULL;
    if (!f) return true;
    netio_decoder_end(&f->d);
    f->running = true;
    int r = netio__frames_run(c);
    f->running = false;
    if (c->state != NETIO__OPEN) return false;
    if (f->restart || f->drop) {
        netio__framing_settle(c);
        return false; // once more, without
    }
    if (r == NETIO_EOF || r == 0) return true;
    if (r < 0) netio__frame_failed(c, r);
    return false;
}

static void netio__frames_count(const netio__conn *c, netio_stats *out)
{
    const netio__framed *f = c->cold ? c->cold->framed : NULL;
    out->frames_in = f ? f->in : 0;
    out->frames_out = f ? f->out : 0;
}

static ptrdiff_t netio__frames_detach(netio__conn *c, netio_socket *out, void *unread, size_t cap)
{
    netio_buf rest[2];
    size_t pieces = netio_decoder_rest(&c->cold->framed->d, rest), at = 0,
           total = c->cold->kept_len;
    for (size_t i = 0; i < pieces; i++) total += rest[i].len;
    if (total > cap) return NETIO_ENOSPC;
    int err = netio__detach_end(c, out);
    if (err < 0) return err;
    for (size_t i = 0; i < pieces; at += rest[i++].len)
        memcpy((uint8_t *)unread + at, rest[i].data, rest[i].len);
    if (c->cold->kept_len)
        memcpy((uint8_t *)unread + at, c->cold->kept + c->cold->kept_off, c->cold->kept_len);
    netio__conn_end(c, 0, NETIO_STAGE_NONE);
    return (ptrdiff_t)total;
}

// --- the PROXY header of accepted connections ---------------------------------------------------

#if !defined(NETIO_NO_PROXY)
typedef struct netio__proxy_head {
    size_t len;
    uint8_t bytes[NETIO_PROXY_MAX];
} netio__proxy_head;

static int netio__proxy_open(netio_filter_io *io, void *arg)
{
    netio__proxy_head *head = (netio__proxy_head *)NETIO_MALLOC(sizeof *head);
    (void)arg;
    if (!head) return NETIO_ENOMEM;
    head->len = 0;
    io->self = head;
    return 0;
}

static void netio__proxy_close(netio_filter_io *io)
{
    NETIO_FREE(io->self);
    io->self = NULL;
}

static int netio__proxy_received(netio_filter_io *io, const void *data, size_t len)
{
    netio__proxy_head *head = (netio__proxy_head *)io->self;
    netio_addr src, dst;
    if (!head) return netio_filter_deliver(io, data, len);
    size_t room = sizeof head->bytes - head->len, part = len < room ? len : room,
           before = head->len;
    memcpy(head->bytes + before, data, part);
    head->len += part;
    memset(&src, 0, sizeof src);
    memset(&dst, 0, sizeof dst);
    ptrdiff_t n = netio_proxy_parse(head->bytes, head->len, &src, &dst);
    if (n < 0) return (int)n;
    if (n == 0) return head->len == sizeof head->bytes ? (int)NETIO_EMSGSIZE : 0;
    int err = netio__peer_keep(io->c, &src);
    if (err < 0) return err;
    netio__proxy_close(io);
    err = netio_filter_ready(io);
    size_t used = (size_t)n - before; // of this piece
    return err < 0 ? err : netio_filter_deliver(io, (const uint8_t *)data + used, len - used);
}

static int netio__proxy_ended(netio_filter_io *io)
{
    return io->self ? (int)NETIO_EPROTO : netio_filter_deliver_end(io);
}

static const netio_filter_ops netio__proxy_ops = {"proxy",
                                                  NULL,
                                                  NULL,
                                                  netio__proxy_open,
                                                  netio__proxy_received,
                                                  netio__proxy_ended,
                                                  NULL,
                                                  NULL,
                                                  NULL,
                                                  NULL,
                                                  netio__proxy_close,
                                                  false};

static int netio__proxy_push(netio__conn *c)
{
    netio_filter f;
    f.ops = &netio__proxy_ops;
    f.arg = NULL;
    return netio__filter_push(c, f);
}
#else
static int netio__proxy_push(netio__conn *c)
{
    (void)c;
    return NETIO_ENOTSUP;
}
#endif

// --- dialing through a proxy --------------------------------------------------------------------

#if !defined(NETIO_NO_SOCKS)
static int netio__tunnel_speak(netio_filter_io *io)
{
    netio_tunnel *t = (netio_tunnel *)io->self;
    netio_buf out = netio_tunnel_output(t);
    return out.len ? netio_filter_emit(io, out.data, out.len) : 0;
}

static int netio__tunnel_open(netio_filter_io *io, void *arg)
{
    io->self = arg;
    return netio__tunnel_speak(io);
}

static void netio__tunnel_unref(void *arg) { NETIO_FREE(arg); }

static int netio__tunnel_received(netio_filter_io *io, const void *data, size_t len)
{
    netio_tunnel *t = (netio_tunnel *)io->self;
    size_t used = 0;
    if (!t) return netio_filter_deliver(io, data, len);
    int r = netio_tunnel_input(t, data, len, &used);
    if (r < 0) return r;
    if (r == 0) return netio__tunnel_speak(io);
    io->self = NULL; // the tunnel is open
    r = netio_filter_ready(io);
    return r < 0 ? r : netio_filter_deliver(io, (const uint8_t *)data + used, len - used);
}

static int netio__tunnel_ended(netio_filter_io *io)
{
    return io->self ? (int)NETIO_EPROTO : netio_filter_deliver_end(io);
}

static void netio__tunnel_explain(netio_filter_io *io, netio_error *out)
{
    (void)io;
    if (out->stage == NETIO_STAGE_HANDSHAKE) out->stage = NETIO_STAGE_PROXY;
}

static const netio_filter_ops netio__tunnel_ops = {"tunnel",
                                                   NULL,
                                                   netio__tunnel_unref,
                                                   netio__tunnel_open,
                                                   netio__tunnel_received,
                                                   netio__tunnel_ended,
                                                   NULL,
                                                   NULL,
                                                   NULL,
                                                   netio__tunnel_explain,
                                                   NULL,
                                                   false};

// `*address` becomes the proxy's. The filter has the tunnel.
static int netio__tunnel_push(netio__conn *c, const char *proxy, const char **address)
{
    netio_filter f;
    netio_tunnel *t = (netio_tunnel *)NETIO_MALLOC(sizeof *t);
    if (!t) return NETIO_ENOMEM;
    int err = netio_tunnel_init(t, proxy, *address);
    f.ops = &netio__tunnel_ops;
    f.arg = t;
    if (err == 0) err = netio__filter_push(c, f);
    if (err < 0) NETIO_FREE(t);
    else *address = t->address;
    return err;
}
#else
static int netio__tunnel_push(netio__conn *c, const char *proxy, const char **address)
{
    (void)c, (void)proxy, (void)address;
    return NETIO_ENOTSUP;
}
#endif

//================================================================================================
// >>udp.c
//
// Received into slots of the loop's buffer, in batches. Sent datagrams are copied one behind the
// other into chunks, each with a head, and leave in batches at the end of the turn.
//================================================================================================

#define NETIO__UDP_MAX 65507 // bytes of a datagram over IPv4; the OS may allow more over IPv6

typedef struct netio__packet_head {
    netio_datagram m;
    size_t size; // of head and data, rounded up
} netio__packet_head;

typedef struct netio__udp {
    netio__node node;
    const netio_udp_handler *handler;
    void *user;
    netio__chunk *out, *out_last;
    size_t queued, queue_max, slot; // slot: room for one datagram
    netio_stats stats;
    bool paused, blocked, drain_due, tell_drain, closing, closed, told, gone, connected;
    int error;        // of sending, that on_error has still to hear of
    bool drain_empty; // on_drain when nothing waits: a quarter was not enough
} netio__udp;

static netio_udp_handler netio__no_udp_handler; // all zero, never written
static netio_udp_opts netio__no_udp_opts;       // all zero, never written

static netio__udp *netio__udp_of(netio__node *n) { return (netio__udp *)(void *)n; }

static netio_udp netio__udp_handle(const netio__udp *u)
{
    netio_udp h;
    h.ptr = (void *)(uintptr_t)u;
    h.gen = u->node.gen;
    return h;
}

static netio__udp *netio__udp_known(netio_udp h)
{
    netio__udp *u = netio__udp_of(netio__node_of(h.ptr, h.gen));
    return u && !u->told ? u : NULL;
}

static netio__udp *netio__udp_live(netio_udp h)
{
    netio__udp *u = netio__udp_known(h);
    return u && !u->closing && !u->closed ? u : NULL;
}

// What one datagram may have; 0: none is taken now.
static size_t netio__udp_appetite(const netio__node *node)
{
    const netio__udp *u = (const netio__udp *)(const void *)node;
    return u->paused || u->closing || u->closed ? 0 : u->slot;
}

// The slots of the loop's buffer, ready to be received into. Returns how many there are.
static size_t netio__udp_slots(netio__udp *u)
{
    netio_loop *loop = u->node.loop;
    size_t count = loop->opts.recv_buffer / u->slot;
    if (count > NETIO__BATCH) count = NETIO__BATCH;
    for (size_t i = 0; i < count; i++) {
        loop->batch[i].data = loop->buf + i * u->slot;
        loop->batch[i].cap = u->slot;
    }
    return count;
}

static void netio__datagrams(netio__node *node, netio_datagram *msgs, size_t count)
{
    netio__udp *u = netio__udp_of(node);
    netio_loop *loop = node->loop;
    if (u->closing || u->closed || count == 0) return;
    for (size_t i = 0; i < count; i++) {
        u->stats.bytes_in += msgs[i].len;
        loop->stats.bytes_in += msgs[i].len;
        u->stats.drops += msgs[i].truncated;
    }
    u->stats.reads += count;
    loop->stats.reads += count;
    u->stats.active_ms = loop->now_us / 1000u;
    if (!u->handler->on_datagrams) return;
    loop->calls++;
    u->handler->on_datagrams(netio__udp_handle(u), msgs, count);
}

static void netio__udp_error(netio__udp *u, int err)
{
    u->stats.other_errors++;
    if (!u->handler->on_error || u->closing || u->closed) return;
    u->node.loop->calls++;
    u->handler->on_error(netio__udp_handle(u), err);
}

static void netio__datagram_failed(netio__node *node, int err)
{
    netio__udp_error(netio__udp_of(node), err);
}

static void netio__udp_sent(netio__udp *u, size_t bytes, size_t count)
{
    netio_loop *loop = u->node.loop;
    u->stats.bytes_out += bytes;
    u->stats.writes += count;
    loop->stats.bytes_out += bytes;
    loop->stats.writes += count;
    u->stats.active_ms = loop->now_us / 1000u;
}

static netio__packet_head *netio__udp_first(const netio__udp *u)
{
    return (netio__packet_head *)(void *)(u->out->data + u->out->off);
}

// The first `count` of the queue are gone.
static void netio__udp_drop(netio__udp *u, size_t count)
{
    while (count-- > 0) {
        netio__chunk *k = u->out;
        const netio__packet_head *head = netio__udp_first(u);
        u->queued -= head->size;
        k->off += head->size;
        if (k->off < k->len) continue;
        u->out = k->next;
        netio__chunk_drop(u->node.loop, k);
    }
}

static size_t netio__udp_gather(const netio__udp *u, netio_datagram *list)
{
    size_t count = 0;
    for (const netio__chunk *k = u->out; k && count < NETIO__BATCH; k = k->next) {
        for (size_t at = k->off; at < k->len && count < NETIO__BATCH; count++) {
            const netio__packet_head *head = (const netio__packet_head *)(void *)(k->data + at);
            list[count] = head->m;
            at += head->size;
        }
    }
    return count;
}

static void netio__udp_flush(netio__udp *u)
{
    netio_datagram list[NETIO__BATCH];
    while (u->out && !u->blocked && !u->closed) {
        size_t count = netio__udp_gather(u, list), bytes = 0;
        ptrdiff_t n = netio__ops(&u->node)->send_batch(&u->node, list, count);
        if (n == NETIO_EAGAIN) {
            u->blocked = true;
        } else if (n < 0) { // of the first: the others may be well
            u->stats.drops++;
            netio__udp_drop(u, 1);
            u->error = (int)n; // told at the end of the turn
        } else {
            for (ptrdiff_t i = 0; i < n; i++) bytes += list[i].len;
            netio__udp_sent(u, bytes, (size_t)n);
            netio__udp_drop(u, (size_t)n);
        }
    }
    if (u->drain_due && u->queued <= (u->drain_empty ? 0 : u->queue_max / 4)) {
        u->drain_due = u->drain_empty = false;
        u->tell_drain = true;
    }
}

static void netio__udp_writable(netio__udp *u)
{
    u->blocked = false;
    netio__work(&u->node);
}

static void netio__udp_end(netio__udp *u, int err)
{
    if (u->closed) return;
    netio_loop *loop = u->node.loop;
    u->closed = true;
    netio__timer_clear(&u->node);
    loop->calls++;
    if (u->handler->on_close) u->handler->on_close(netio__udp_handle(u), err);
    u->told = true;
    netio__chunks_drop(loop, u->out);
    u->out = NULL;
    netio__ops(&u->node)->close(&u->node, false); // netio__closed frees it
}

static void netio__udp_work(netio__udp *u)
{
    if (u->closed) {
        if (u->gone) netio__node_free(&u->node);
        return;
    }
    netio__udp_flush(u);
    if (u->error) {
        int err = u->error;
        u->error = 0;
        netio__udp_error(u, err);
    }
    if (u->tell_drain && !u->closing) {
        u->tell_drain = false;
        u->node.loop->calls++;
        if (u->handler->on_drain) u->handler->on_drain(netio__udp_handle(u));
        if (u->out) netio__work(&u->node);
    }
    if (u->closing && !u->out) {
        netio__udp_end(u, 0);
        return;
    }
    unsigned events = u->blocked ? (unsigned)NETIO_EV_WRITE : 0;
    if (!u->paused && !u->closing) events |= NETIO_EV_READ;
    int err = netio__ops(&u->node)->want(&u->node, events);
    if (err < 0) netio__udp_end(u, err);
}

static int netio__udp_make(netio__udp **out, netio_loop *loop, const netio_udp_handler *handler,
                           const netio_udp_opts *o)
{
    size_t slot = netio__size_or(o->datagram_max, 2048);
    if (slot > 65536 || slot > loop->opts.recv_buffer) return NETIO_EINVAL;
    if (loop->destroying || loop->finishing) return NETIO_ECANCELED;
    if (!loop->batch) {
        size_t size = NETIO__BATCH * sizeof *loop->batch;
        loop->batch = (netio_datagram *)NETIO_MALLOC(size);
        if (!loop->batch) return NETIO_ENOMEM;
        memset(loop->batch, 0, size);
    }
    netio__udp *u = netio__udp_of(netio__node_make(loop, NETIO__UDP));
    if (!u) return NETIO_ENOMEM;
    netio__loop_tick(loop);
    u->handler = handler ? handler : &netio__no_udp_handler;
    u->user = o->user;
    u->slot = slot;
    u->queue_max = netio__size_or(o->write_queue_max, 256 * 1024);
    u->connected = o->peer != NULL;
    u->stats.opened_ms = u->stats.active_ms = loop->now_us / 1000u;
    *out = u;
    return 0;
}

static int netio__udp_start(netio_udp *out, netio__udp *u)
{
    int err = netio__ops(&u->node)->want(&u->node, NETIO_EV_READ);
    if (err == 0 && out) *out = netio__udp_handle(u);
    return err;
}

NETIO_API int netio_udp_open(netio_udp *out, netio_loop *loop, const char *address,
                             const netio_udp_handler *handler, const netio_udp_opts *opts)
{
    const netio_udp_opts *o = opts ? opts : &netio__no_udp_opts;
    netio__udp *u;
    if (!loop) return NETIO_EINVAL;
    int err = netio__udp_make(&u, loop, handler, o);
    if (err < 0) return err;
    err = netio__ops(&u->node)->bind(&u->node, address, o->peer, &o->socket);
    if (err < 0) {
        netio__node_free(&u->node);
        return err;
    }
    err = netio__udp_start(out, u);
    if (err < 0) {
        u->handler = &netio__no_udp_handler;
        netio__udp_end(u, err);
    }
    return err;
}

NETIO_API int netio_udp_adopt(netio_udp *out, netio_loop *loop, netio_socket s,
                              const netio_udp_handler *handler, const netio_udp_opts *opts)
{
    const netio_udp_opts *o = opts ? opts : &netio__no_udp_opts;
    netio__udp *u;
    netio_addr peer;
    if (!loop || o->peer) return NETIO_EINVAL;
    if (!loop->poller) return NETIO_ENOTSUP;
    int type = 0, err = netio_get_option(s, NETIO_OPT_TYPE, &type);
    if (err == 0 && type != NETIO_DGRAM) err = NETIO_EINVAL;
    if (err == 0) err = netio_adopt(s, NULL);
    if (err == 0) err = netio__udp_make(&u, loop, handler, o);
    if (err < 0) return err;
    u->connected = netio_peer_addr(s, &peer) == 0;
    u->node.io.socket = s;
    err = netio__udp_start(out, u);
    if (err < 0) netio__node_free(&u->node); // the socket stays the caller's
    return err;
}

NETIO_API void netio_udp_close(netio_udp h)
{
    netio__udp *u = netio__udp_live(h);
    if (!u) return;
    u->closing = true;
    if (u->out) netio__timer_set(&u->node, netio__in_ms(u->node.loop, 1000));
    netio__work(&u->node);
}

static bool netio__udp_full(const netio__udp *u, size_t more)
{
    return u->queued && (more > u->queue_max || u->queued > u->queue_max - more);
}

// One datagram to the queue's end.
static int netio__udp_queue(netio__udp *u, const netio_datagram *m)
{
    size_t align = sizeof(uint64_t) - 1,
           size = (sizeof(netio__packet_head) + m->len + align) & ~align;
    if (m->len > NETIO__UDP_MAX) return NETIO_EMSGSIZE;
    if (m->len && !m->data) return NETIO_EINVAL;
    if (!u->connected && m->peer.len == 0) return NETIO_ENOTCONN;
    if (netio__udp_full(u, size)) netio__udp_flush(u);
    netio__chunk *last = u->out ? u->out_last : NULL;
    if (netio__udp_full(u, size)) {
        u->drain_due = true;
        u->drain_empty = u->queued <= u->queue_max / 4;
        u->stats.drops++;
        u->node.loop->stats.drops++;
        return NETIO_ENOBUFS;
    }
    if (!last || last->cap - last->len < size) {
        size_t room = size < NETIO__CHUNK_LARGE ? NETIO__CHUNK_LARGE : size;
        netio__chunk *k = netio__chunk_make(u->node.loop, room);
        if (!k) return NETIO_ENOMEM;
        netio__chunk_append(&u->out, &u->out_last, k);
        last = k;
    }
    netio__packet_head *head = (netio__packet_head *)(void *)(last->data + last->len);
    head->m = *m;
    head->m.data = head + 1;
    head->size = size;
    if (m->len) memcpy(head + 1, m->data, m->len);
    last->len += size;
    u->queued += size;
    netio__work(&u->node);
    return 0;
}

NETIO_API int netio_udp_send(netio_udp h, const void *data, size_t len, const netio_addr *to)
{
    netio__udp *u = netio__udp_live(h);
    netio_datagram m;
    if (!u) return NETIO_ESTALE;
    memset(&m, 0, sizeof m);
    m.data = (void *)(uintptr_t)data;
    m.len = len;
    if (to) m.peer = *to;
    return netio__udp_queue(u, &m);
}

NETIO_API ptrdiff_t netio_udp_send_batch(netio_udp h, const netio_datagram *msgs, size_t count)
{
    netio__udp *u = netio__udp_live(h);
    size_t done = 0, bytes = 0;
    if (!u) return NETIO_ESTALE;
    if (!msgs && count) return NETIO_EINVAL;
    if (!u->out && !u->blocked && count) { // straight from the caller's memory
        ptrdiff_t n = netio__ops(&u->node)->send_batch(&u->node, msgs, count);
        for (; n > 0 && done < (size_t)n; done++) bytes += msgs[done].len;
        if (done) netio__udp_sent(u, bytes, done);
    }
    for (; done < count; done++) {
        int err = netio__udp_queue(u, &msgs[done]);
        if (err < 0) return done ? (ptrdiff_t)done : (ptrdiff_t)err;
    }
    return (ptrdiff_t)count;
}

static int netio__udp_set_paused(netio_udp h, bool paused)
{
    netio__udp *u = netio__udp_live(h);
    if (!u) return NETIO_ESTALE;
    u->paused = paused;
    netio__work(&u->node);
    return 0;
}

NETIO_API int netio_udp_pause(netio_udp u) { return netio__udp_set_paused(u, true); }

NETIO_API int netio_udp_resume(netio_udp u) { return netio__udp_set_paused(u, false); }

NETIO_API void *netio_udp_user(netio_udp h)
{
    netio__udp *u = netio__udp_known(h);
    return u ? u->user : NULL;
}

NETIO_API netio_loop *netio_udp_loop(netio_udp h)
{
    netio__udp *u = netio__udp_known(h);
    return u ? u->node.loop : NULL;
}

NETIO_API int netio_udp_addr(netio_udp h, netio_addr *out)
{
    netio__udp *u = netio__udp_live(h);
    return u ? netio__ops(&u->node)->name(&u->node, out, false) : (int)NETIO_ESTALE;
}

NETIO_API int netio_udp_socket(netio_udp h, netio_socket *out)
{
    netio__udp *u = netio__udp_live(h);
    return u ? netio__ops(&u->node)->socket(&u->node, out) : (int)NETIO_ESTALE;
}

NETIO_API int netio_udp_stats(netio_udp h, netio_stats *out)
{
    netio__udp *u = netio__udp_known(h);
    if (!u) return NETIO_ESTALE;
    *out = u->stats;
    return 0;
}

//================================================================================================
// >>readiness.c                                               engine: sockets of the OS and a
// poller
//
// Level-triggered. A socket is registered when it is first wanted and its interest changes only at
// the end of a turn. One read per report into the loop's buffer, another only if that came back
// full. Sockets of our own are closed without being taken out of epoll and kqueue, which forget
// them by themselves; adopted ones, and those whose number was given to the user, may have
// duplicates and are taken out.
//================================================================================================

#define NETIO__ACCEPTS 64 // in a turn of a listener

// Set once on a listener, Linux hands TCP_NODELAY on to what it accepts. Not one of them need be
// TCP.
#if NETIO__LINUX
static void netio__listen_nodelay(netio_socket s) { netio_set_option(s, NETIO_OPT_NODELAY, 1); }

static void netio__accept_nodelay(netio_socket s) { (void)s; }
#else
static void netio__listen_nodelay(netio_socket s) { (void)s; }

static void netio__accept_nodelay(netio_socket s) { netio_set_option(s, NETIO_OPT_NODELAY, 1); }
#endif

// Forgets a socket that will be closed now. `shared`: the kernel must be told.
static void netio__poller_forget(netio_poller *p, netio_socket s, bool shared)
{
    uint32_t slot = netio__slot_find(p, s);
    if (slot == NETIO__NO_SLOT) return;
    if (!shared && p->fd >= 0 && p->slots[slot].pos == NETIO__NO_SLOT) netio__slot_free(p, slot);
    else netio_poller_remove(p, s);
}

static bool netio__is_shared(const netio__node *n)
{
    if (n->kind == NETIO__CONN) {
        const netio__conn *c = (const netio__conn *)(const void *)n;
        return (c->flags & NETIO__SHARED) != 0;
    }
    return n->kind == NETIO__LISTENER || n->kind == NETIO__UDP;
}

static int netio__ready_want(netio__node *n, unsigned events)
{
    netio_poller *p = n->loop->poller;
    int err = 0;
    if ((n->armed & NETIO__INTEREST) == events) return 0;
    if (n->armed & NETIO__REGISTERED) err = netio_poller_modify(p, n->io.socket, events, n);
    else err = netio_poller_add(p, n->io.socket, events, n);
    if (err == 0) n->armed = (uint8_t)(events | NETIO__REGISTERED);
    return err;
}

static int netio__ready_listen(netio__node *n, const char *address, const netio_socket_opts *o)
{
    netio_socket s;
    int err = netio_listen(&s, address, o);
    if (err < 0) return err;
    netio__listen_nodelay(s);
    n->io.socket = s;
    return 0;
}

static int netio__ready_connect(netio__node *n, const netio_addr *a, const netio_socket_opts *o)
{
    netio_socket s;
    int err = netio_connect_start(&s, a, o);
    if (err < 0 && err != NETIO_EINPROGRESS) return err;
    if (netio_addr_family(a) != NETIO_UNIX) netio_set_option(s, NETIO_OPT_NODELAY, 1);
    n->io.socket = s;
    if (err == 0) return 0;
    int added = netio__ready_want(n, NETIO_EV_WRITE);
    if (added == 0) return err;
    netio__unmake(s);
    n->io.socket = NETIO_INVALID_SOCKET;
    return added;
}

static int netio__ready_bind(netio__node *n, const char *address, const char *peer,
                             const netio_socket_opts *o)
{
    netio_socket_opts so = *o;
    netio_addr to;
    netio_socket s;
    int err;
    so.type = NETIO_DGRAM;
    if (peer) {
        err = netio_addr_parse(&to, peer, strlen(peer));
        if (err < 0) return err;
        if (address) so.local = address;
        err = netio_connect_start(&s, &to, &so);
    } else {
        err = netio_bind(&s, address ? address : ":0", &so);
    }
    if (err < 0) return err;
    n->io.socket = s;
    return 0;
}

// The node may have changed, the registration is the same.
static void netio__ready_own(netio__node *n)
{
    if (n->armed & NETIO__REGISTERED)
        netio_poller_modify(n->loop->poller, n->io.socket, n->armed & NETIO__INTEREST, n);
}

static ptrdiff_t netio__ready_send(netio__node *n, const netio_buf *bufs, size_t count, bool lent)
{
    netio__iov iov[64];
    ptrdiff_t r;
    (void)lent; // the kernel copies
    if (count == 1) {
        size_t len = bufs[0].len < NETIO__IO_MAX ? bufs[0].len : NETIO__IO_MAX;
        r = netio__os_send(n->io.socket, bufs[0].data, len);
    } else {
        size_t room = NETIO__IO_MAX, used = 0;
        for (; used < count && used < 64 && room; used++) {
            size_t len = bufs[used].len < room ? bufs[used].len : room;
            netio__os_iov_set(&iov[used], bufs[used].data, len);
            room -= len;
        }
        r = netio__os_sendv(n->io.socket, iov, used);
    }
    NETIO_ON_OP(NETIO_OP_SEND, n->io.socket, r);
    return r;
}

static ptrdiff_t netio__ready_send_file(netio__node *n, netio_file file, uint64_t off, uint64_t len)
{
    ptrdiff_t r = netio__os_sendfile(n->io.socket, file, off, (size_t)len);
    NETIO_ON_OP(NETIO_OP_SEND, n->io.socket, r);
    return r == 0 ? (ptrdiff_t)NETIO_ETRUNCATED : r;
}

static ptrdiff_t netio__ready_send_batch(netio__node *n, const netio_datagram *msgs, size_t count)
{
    return netio_send_batch(n->io.socket, msgs, count, 0);
}

static int netio__ready_shutdown(netio__node *n)
{
    return netio_shutdown(n->io.socket, NETIO_SHUT_WRITE);
}

static void netio__ready_close(netio__node *n, bool reset)
{
    netio_socket s = n->io.socket;
    if (n->armed & NETIO__REGISTERED) netio__poller_forget(n->loop->poller, s, netio__is_shared(n));
    n->armed = 0;
    n->io.socket = NETIO_INVALID_SOCKET;
    if (!reset || netio_abort(&s) < 0) netio_close(&s);
    netio__closed(n);
}

static void netio__ready_discard(netio_loop *loop, netio__io io)
{
    (void)loop;
    if (netio_abort(&io.socket) < 0) netio_close(&io.socket);
}

static int netio__ready_detach(netio__node *n, netio_socket *out)
{
    if (n->armed & NETIO__REGISTERED) netio_poller_remove(n->loop->poller, n->io.socket);
    n->armed = 0;
    *out = n->io.socket;
    n->io.socket = NETIO_INVALID_SOCKET;
    return 0;
}

static int netio__ready_name(netio__node *n, netio_addr *out, bool peer)
{
    return peer ? netio_peer_addr(n->io.socket, out) : netio_local_addr(n->io.socket, out);
}

static int netio__ready_socket(netio__node *n, netio_socket *out)
{
    *out = n->io.socket;
    return 0;
}

// --- events ------------------------------------------------------------------------------------

static void netio__ready_accept(netio__node *n)
{
    uint64_t sa[16];
    bool ask = netio__wants_peer(n);
    for (int i = 0; i < NETIO__ACCEPTS && (n->armed & NETIO_EV_READ); i++) {
        netio__socklen len = 0;
        netio_addr peer;
        netio__io io;
        int err = netio__os_accept(&io.socket, n->io.socket, ask ? sa : NULL, &len);
        if (err == NETIO_EAGAIN) return;
        if (err < 0) {
            netio__accept_failed(n, err);
            return;
        }
        NETIO_ON_OP(NETIO_OP_ACCEPT, io.socket, 0);
        netio__accept_nodelay(io.socket);
        if (ask) netio__addr_take(&peer, sa, len);
        netio__accepted(n, io, ask ? &peer : NULL);
        if (netio__listener_of(n)->closed || netio__listener_of(n)->paused) return;
    }
}

// Without a copy, for a relay. Whether that was possible.
static bool netio__ready_splice(netio__node *n)
{
    netio__conn *c = netio__conn_of(n);
    if (!netio__relay_direct(c)) return false;
    ptrdiff_t r = netio__relay_pull(c);
    NETIO_ON_OP(NETIO_OP_RECV, n->io.socket, r);
    if (r == NETIO_ENOTSUP) return false;
    if (r == 0) netio__ended(n);
    else if (r < 0 && r != NETIO_EAGAIN) netio__failed(n, (int)r);
    if (r > 0) {
        netio__received_count(c, (size_t)r);
        netio__relay_push(c);
    }
    return true;
}

static void netio__ready_receive(netio__node *n)
{
    netio_loop *loop = n->loop;
    size_t budget = loop->opts.turn_budget;
    if (netio__conn_of(n)->cold && netio__appetite(n) && netio__ready_splice(n)) return;
    for (;;) {
        size_t cap = netio__appetite(n);
        if (cap > loop->opts.recv_buffer) cap = loop->opts.recv_buffer;
        if (cap == 0) { // nobody reads: it must not stay armed
            netio__work(n);
            return;
        }
        ptrdiff_t r = netio__os_recv(n->io.socket, loop->buf, cap, 0);
        NETIO_ON_OP(NETIO_OP_RECV, n->io.socket, r);
        if (r == NETIO_EAGAIN) return;
        if (r == 0) netio__ended(n);
        else if (r < 0) netio__failed(n, (int)r);
        else netio__received(n, loop->buf, (size_t)r);
        if (r <= 0 || (size_t)r < cap || (size_t)r >= budget) return;
        budget -= (size_t)r;
    }
}

static void netio__ready_conn(netio__node *n, unsigned events)
{
    const netio__conn *c = (const netio__conn *)(const void *)n;
    if (!n->gen || (c->flags & NETIO__CLOSED) || n->io.socket == NETIO_INVALID_SOCKET) return;
    if (events & NETIO_EV_WRITE) netio__writable(n);
    if ((events & NETIO_EV_READ) && c->state != NETIO__OVER) netio__ready_receive(n);
}

static void netio__ready_udp(netio__node *n, unsigned events)
{
    netio__udp *u = netio__udp_of(n);
    if (events & NETIO_EV_WRITE) netio__writable(n);
    for (int i = 0; (events & NETIO_EV_READ) && i < 4; i++) {
        if (u->closed || u->closing || u->paused) return;
        size_t cap = netio__udp_slots(u);
        ptrdiff_t got = netio_recv_batch(n->io.socket, n->loop->batch, cap, 0);
        if (got == NETIO_EAGAIN) return;
        if (got < 0) {
            netio__datagram_failed(n, (int)got);
            continue; // the error was of one datagram that we sent
        }
        netio__datagrams(n, n->loop->batch, (size_t)got);
        if ((size_t)got < cap) return;
    }
}

static void netio__ready_attempt(netio__node *n)
{
    if (n->io.socket == NETIO_INVALID_SOCKET) return;
    int err = netio__connect_result(n->io.socket);
    NETIO_ON_OP(NETIO_OP_CONNECT, n->io.socket, err);
    netio__connected(n, err);
}

static void netio__node_event(netio__node *n, unsigned events)
{
    switch (n->kind) {
    case NETIO__CONN: netio__ready_conn(n, events); return;
    case NETIO__LISTENER: netio__ready_accept(n); return;
    case NETIO__ATTEMPT: netio__ready_attempt(n); return;
    case NETIO__UDP: netio__ready_udp(n, events); return;
    case NETIO__WATCH: netio__watch_event((netio__watch *)(void *)n, events); return;
    default: netio__signal_event(n->loop); return;
    }
}

static int netio__wait_ms(const netio_loop *loop, uint64_t until_us)
{
    uint64_t now = loop->now_us;
    if (until_us == NETIO__NEVER_US) return -1;
    if (until_us <= now) return 0;
    uint64_t ms = (until_us - now + 999) / 1000u; // rounded up: else it would spin until it is due
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

static int netio__ready_wait(netio_loop *loop, uint64_t until_us)
{
    netio_event events[512];
    netio_poller *p = loop->poller;
    // The turn before may have been slow: the time to wait counts from now.
    if (until_us != NETIO__NEVER_US && until_us > loop->now_us) netio__loop_tick(loop);
    ptrdiff_t n = p->ops->wait(p, events, 512, netio__wait_ms(loop, until_us));
    netio__loop_tick(loop);
    if (p->woken) {
        p->woken = false;
        loop->woken = true;
        loop->stopped |= p->stop;
        p->stop = false;
    }
    if (n == NETIO_EAGAIN) return 0; // a signal came
    if (n < 0) return (int)n;
    for (ptrdiff_t i = 0; i < n && !loop->stopped; i++)
        netio__node_event((netio__node *)events[i].user, events[i].events);
    return 0;
}

static void netio__ready_leave(netio_loop *loop, bool forked)
{
    netio_poller *p = loop->poller;
    if (!p) return;
    if (forked) loop->signal_node.armed = 0; // the kernel's set is the parent's, too
    netio__signal_pipe_close(loop);
    netio_poller_close(p);
    loop->poller = NULL;
}

static const netio__engine_ops netio__ready_ops = {
    netio__ready_listen,
    netio__ready_connect,
    netio__ready_bind,
    netio__ready_own,
    netio__ready_want,
    netio__ready_send,
    netio__ready_send_file,
    netio__ready_send_batch,
    netio__ready_shutdown,
    netio__ready_close,
    netio__ready_discard,
    netio__ready_detach,
    netio__ready_name,
    netio__ready_socket,
    NULL,
    netio__ready_wait,
    NULL,
    NULL,
    netio__ready_leave,
};

//================================================================================================
// >>memory.c                                                       engine: a network in memory
//
// Calls and the passing of time change only the network, and line up the ends that have something
// to tell; `wait` and `due` of an end's loop tell it. So nothing is ever reported from inside a
// call, and all of it late, as far as the rules of the seam let it be.
//
// A stream is two ends. Each holds what it sends: blocks in the order in which they arrive, before
// them the handshake, behind them FIN or reset. Only what arrives next stands in the network's
// heap, and room for it is made with the end, so that what is under way needs no memory to arrive.
// Datagrams overtake each other: each stands there by itself.
//================================================================================================

#define NETIO__MEM_BLOCK ((size_t)2048)        // unit of memory
#define NETIO__MEM_POOL ((size_t)1024)         // units kept for reuse
#define NETIO__MEM_WINDOW ((size_t)256 * 1024) // of a link that does not say
#define NETIO__MEM_QUEUE                                                                           \
    ((size_t)1024 * 1024)                   // datagrams from an endpoint, and those that wait there
#define NETIO__MEM_SEGMENT ((size_t)1460)   // a link with a bandwidth carries these one by one
#define NETIO__MEM_LATE ((size_t)4096)      // reported after reading was stopped, at most
#define NETIO__MEM_DATAGRAM ((size_t)65507) // as over IPv4
#define NETIO__MEM_BUCKETS 512              // of the table of ports
#define NETIO__MEM_PORTS 32768              // ephemeral ones: the upper half
#define NETIO__MEM_HELD 16                  // pieces of a lent send

enum { NETIO__MEM_STREAM, NETIO__MEM_LISTENER, NETIO__MEM_SOCKET, NETIO__MEM_PACKET };

// How a stream starts: SYN; ACK or REFUSE back; OPEN. How it ends: FIN or RESET.
enum {
    NETIO__MEM_SYN = 1,
    NETIO__MEM_ACK,
    NETIO__MEM_REFUSE,
    NETIO__MEM_OPEN,
    NETIO__MEM_FIN,
    NETIO__MEM_RESET
};

typedef struct netio__mem_event { // the head of what can stand in the network's heap
    uint32_t place;
    uint8_t kind;
} netio__mem_event;

typedef struct netio__mem_wire { // when a sender's line is free; `rest` is part of a microsecond
    uint64_t free_us, rest;
} netio__mem_wire;

typedef struct netio__mem_block { // its bytes follow
    struct netio__mem_block *next;
    uint64_t us; // when they arrive
    size_t off, len;
} netio__mem_block;

typedef struct netio__mem_rule { // a link between two hosts
    struct netio__mem_rule *next;
    netio__ip a, b; // family 0: any
    netio_link link;
} netio__mem_rule;

typedef struct netio__mem_name { // its text follows
    struct netio__mem_name *next;
    netio__ip ip;
} netio__mem_name;

typedef struct netio__mem_end netio__mem_end;

struct netio__member { // a loop on the network
    netio__member *next;
    netio_loop *loop;
    netio__ip host;
    netio__mem_end *ready, *ready_last; // what has something to tell
};

struct netio__mem_end { // the head of a stream's end, a listener, an endpoint
    netio__mem_event event;
    uint8_t want; // NETIO_EV_*
    bool ready, bound, closing, closed, dual;
    netio_network *net;
    netio__member *member;
    netio__node *node; // that is told; NULL: nobody
    netio__ip local, peer;
    netio__mem_end *ready_next, *bound_next, *prev, *next;
};

typedef struct netio__mem_listener {
    netio__mem_end end;
    size_t pending, backlog; // clients that were not accepted yet
    struct netio__mem_stream *queue, *queue_last;
} netio__mem_listener;

typedef struct netio__mem_stream {
    netio__mem_end end;
    struct netio__mem_stream *peer, *queue_next; // in a listener's queue
    netio__mem_listener *listener;               // it waits there
    const netio_link *link;
    uint64_t link_gen; // of the network's links when it was looked up; UINT64_MAX: its own
    // What this end sends: blocks that arrived and wait to be read, and those in the air.
    netio__mem_block *here, *here_last, *air, *air_last;
    size_t arrived, under_way, blocks; // bytes here; bytes and blocks of both
    netio__mem_wire wire;
    uint64_t sent, last_us; // nothing arrives before what was sent before it
    uint64_t start_us, tail_us;
    uint8_t start, tail, tries;    // NETIO__MEM_SYN..., NETIO__MEM_FIN...; SYNs so far
    bool tail_here;                // the tail has arrived
    bool broken;                   // at the link's reset_at
    bool stalled;                  // the link is cut
    bool dialing, connected, shut; // connected: the handshake has arrived here
    bool told;                     // how the peer's bytes end
    bool second;                   // of the two in one block
    int error;                     // what befell it
    size_t grant, late; // bytes that may be reported; and that will be, though reading was stopped
    size_t held_count;
    netio_buf held[NETIO__MEM_HELD]; // lent
} netio__mem_stream;

typedef struct netio__mem_packet { // a datagram; its bytes follow
    netio__mem_event event;
    bool back; // to its sender: nobody took it
    struct netio__mem_packet *next;
    struct netio__mem_socket *from;
    netio__ip src, dst;
    size_t len;
} netio__mem_packet;

typedef struct netio__mem_socket { // an endpoint for datagrams
    netio__mem_end end;
    netio__mem_packet *queue, *queue_last;
    size_t flying, queued, under_way; // datagrams from here; what those there, and from here, cost
    netio__mem_wire wire;
    bool refused;
} netio__mem_socket;

struct netio_network {
    bool real; // of one loop, on its clock
    bool driving;
    unsigned depth; // of loops that report now
    uint16_t port;  // ephemeral one given last
    uint64_t now_us, seq, random, link_gen;
    netio_link link; // where no rule fits
    netio__mem_rule *rules;
    netio__mem_name *names;
    netio__heap heap;
    size_t sources; // what may stand in the heap
    netio__member *members, *cursor;
    netio__mem_end *ends, *dead;
    netio__mem_block *pool;
    size_t pool_count;
    netio__mem_end *bound[NETIO__MEM_BUCKETS];
};

static uint64_t netio__mem_now(const netio_network *net)
{
    return net->real && net->members ? net->members->loop->now_us : net->now_us;
}

static uint64_t netio__network_clock(const netio_network *net) { return net->now_us; }

static uint64_t netio__mem_random(netio_network *net) // splitmix64
{
    uint64_t z = net->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

// A number from 1 to `max`; `max` 0 is no limit.
static size_t netio__mem_some(netio_network *net, size_t max)
{
    return max ? 1 + (size_t)(netio__mem_random(net) % max) : SIZE_MAX;
}

// --- memory ------------------------------------------------------------------------------------

static void *netio__mem_take(netio_network *net, size_t size)
{
    netio__mem_block *k = net->pool;
    if (size > NETIO__MEM_BLOCK || !k)
        return NETIO_MALLOC(size > NETIO__MEM_BLOCK ? size : NETIO__MEM_BLOCK);
    net->pool = k->next;
    net->pool_count--;
    return k;
}

static void netio__mem_give(netio_network *net, void *p, size_t size)
{
    netio__mem_block *k = (netio__mem_block *)p;
    if (size > NETIO__MEM_BLOCK || net->pool_count >= NETIO__MEM_POOL) {
        NETIO_FREE(p);
        return;
    }
    k->next = net->pool;
    net->pool = k;
    net->pool_count++;
}

// Room in the heap, so that standing there cannot fail.
static int netio__mem_reserve(netio_network *net, size_t count)
{
    void *items = net->heap.items;
    int err =
        netio__array_grow(&items, &net->heap.cap, net->sources + count, sizeof *net->heap.items);
    if (err < 0) return err;
    net->heap.items = (netio__due *)items;
    net->sources += count;
    return 0;
}

static void netio__mem_at(netio_network *net, netio__mem_event *e, uint64_t us)
{
    netio__heap_set(&net->heap, &e->place, us, ++net->seq);
}

// --- links -------------------------------------------------------------------------------------

static bool netio__mem_same(const netio__ip *a, const netio__ip *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, 16) == 0;
}

static bool netio__mem_loopback(const netio__ip *ip)
{
    netio_addr a;
    netio__addr_set_ip(&a, ip);
    return (netio_addr_class(&a) & NETIO_ADDR_LOOPBACK) != 0;
}

static bool netio__mem_fits(const netio__mem_rule *r, const netio__ip *a, const netio__ip *b)
{
    return (!r->a.family || netio__mem_same(&r->a, a)) &&
           (!r->b.family || netio__mem_same(&r->b, b));
}

static const netio_link *netio__mem_link(const netio_network *net, const netio__ip *a,
                                         const netio__ip *b)
{
    for (const netio__mem_rule *r = net->rules; r; r = r->next)
        if (netio__mem_fits(r, a, b) || netio__mem_fits(r, b, a)) return &r->link;
    return &net->link;
}

static const netio_link *netio__stream_link(netio__mem_stream *s)
{
    if (s->link_gen != UINT64_MAX && s->link_gen != s->end.net->link_gen) {
        s->link = netio__mem_link(s->end.net, &s->end.local, &s->end.peer);
        s->link_gen = s->end.net->link_gen;
    }
    return s->link;
}

// When `len` bytes that are sent now arrive: they wait for those before them, last as long as the
// bandwidth says, to the last byte exactly, and travel.
static uint64_t netio__mem_arrival(uint64_t now, netio__mem_wire *w, const netio_link *l,
                                   size_t len)
{
    if (w->free_us < now) {
        w->free_us = now;
        w->rest = 0;
    }
    if (l->bandwidth) {
        uint64_t parts = (uint64_t)len * 1000000u + w->rest;
        w->free_us += parts / l->bandwidth;
        w->rest = parts % l->bandwidth;
    }
    return w->free_us + (uint64_t)l->latency_ms * 1000u;
}

// --- ends --------------------------------------------------------------------------------------

static netio__mem_end *netio__mem_end_of(const netio__node *n)
{
    return (netio__mem_end *)n->io.memory;
}

static netio__mem_stream *netio__mem_stream_of(netio__mem_end *e)
{
    return (netio__mem_stream *)(void *)e;
}

static netio__mem_listener *netio__mem_listener_of(netio__mem_end *e)
{
    return (netio__mem_listener *)(void *)e;
}

static netio__mem_socket *netio__mem_socket_of(netio__mem_end *e)
{
    return (netio__mem_socket *)(void *)e;
}

static void netio__mem_ready(netio__mem_end *e)
{
    netio__member *m = e->member;
    if (!e->node || e->ready) return;
    e->ready = true;
    e->ready_next = NULL;
    if (m->ready) m->ready_last->ready_next = e;
    else m->ready = e;
    m->ready_last = e;
}

static void netio__mem_enter(netio__mem_end *e, netio__member *m, int kind)
{
    netio_network *net = m->loop->network;
    e->event.kind = (uint8_t)kind;
    e->net = net;
    e->member = m;
    e->next = net->ends;
    if (net->ends) net->ends->prev = e;
    net->ends = e;
}

static void netio__mem_leave(netio__mem_end *e)
{
    if (e->next) e->next->prev = e->prev;
    if (e->prev) e->prev->next = e->next;
    else e->net->ends = e->next;
}

static void netio__mem_sweep(netio_network *net)
{
    while (net->dead && net->depth == 0) { // else a report may be about it
        netio__mem_end *e = net->dead;
        net->dead = e->ready_next;
        NETIO_FREE(e);
    }
}

static void netio__stream_drop(netio__mem_stream *s);
static void netio__blocks_free(netio__mem_stream *s, netio__mem_block *k);

static bool netio__stream_over(const netio__mem_stream *s) { return s->end.closed && !s->end.node; }

// What is closed and has told so ends when nothing needs it any more.
static void netio__mem_release(netio__mem_end *e)
{
    netio_network *net = e->net;
    if (!e->closed || e->node) return;
    if (e->event.kind == NETIO__MEM_STREAM) {
        netio__mem_stream *s = netio__mem_stream_of(e), *two[2];
        if (!netio__stream_over(s->peer)) return;
        two[0] = s->second ? s->peer : s;
        two[1] = two[0]->peer;
        for (int i = 0; i < 2; i++) {
            netio__stream_drop(two[i]);
            netio__blocks_free(two[i], two[i]->here);
            netio__mem_leave(&two[i]->end);
        }
        net->sources -= 2;
        e = &two[0]->end;
    } else {
        if (e->event.kind == NETIO__MEM_SOCKET && netio__mem_socket_of(e)->flying) return;
        netio__mem_leave(e);
    }
    e->ready_next = net->dead;
    net->dead = e;
}

// --- addresses and ports -----------------------------------------------------------------------

// Whether what a loop (NULL: it has left) sends to `to` comes to this end.
static bool netio__mem_reaches(const netio__mem_end *e, const netio__ip *to,
                               const netio__member *from)
{
    if (e->local.port != to->port) return false;
    if (!netio__ip_is_any(&e->local)) return netio__mem_same(&e->local, to);
    if (e->local.family != to->family && !e->dual) return false;
    return netio__mem_same(&e->member->host, to) ||
           (from && netio__mem_loopback(to) && netio__mem_same(&e->member->host, &from->host));
}

// The exact address goes before any-address.
static netio__mem_end *netio__mem_find(netio_network *net, int kind, const netio__ip *to,
                                       const netio__member *from)
{
    netio__mem_end *best = NULL;
    for (netio__mem_end *e = net->bound[to->port % NETIO__MEM_BUCKETS]; e; e = e->bound_next) {
        if (e->event.kind != kind || !netio__mem_reaches(e, to, from)) continue;
        if (!best || !netio__ip_is_any(&e->local)) best = e;
    }
    return best;
}

// Whether the two cannot have their ports both. A client's counts together with its peer's.
static bool netio__mem_clash(const netio__mem_end *a, const netio__mem_end *b)
{
    bool any = netio__ip_is_any(&a->local) || netio__ip_is_any(&b->local);
    if (a->event.kind != b->event.kind || a->local.port != b->local.port) return false;
    if (a->event.kind == NETIO__MEM_STREAM)
        return netio__mem_same(&a->local, &b->local) && netio__mem_same(&a->peer, &b->peer) &&
               a->peer.port == b->peer.port;
    if (a->local.family != b->local.family && !a->dual && !b->dual) return false;
    return any ? netio__mem_same(&a->member->host, &b->member->host)
               : netio__mem_same(&a->local, &b->local);
}

static bool netio__mem_port_free(const netio__mem_end *e)
{
    const netio__mem_end *b = e->net->bound[e->local.port % NETIO__MEM_BUCKETS];
    while (b && !netio__mem_clash(b, e)) b = b->bound_next;
    return !b;
}

static uint16_t netio__mem_next_port(netio_network *net)
{
    net->port = (uint16_t)((net->port + 1) | NETIO__MEM_PORTS);
    return net->port;
}

// Takes the port of e->local; 0: any that is free.
static int netio__mem_bind(netio__mem_end *e)
{
    netio_network *net = e->net;
    unsigned tries = e->local.port ? 1 : NETIO__MEM_PORTS;
    bool any = e->local.port == 0;
    for (; tries > 0; tries--) {
        if (any) e->local.port = netio__mem_next_port(net);
        if (!netio__mem_port_free(e)) continue;
        netio__mem_end **bucket = &net->bound[e->local.port % NETIO__MEM_BUCKETS];
        e->bound_next = *bucket;
        *bucket = e;
        e->bound = true;
        return 0;
    }
    return any ? NETIO_EADDRNOTAVAIL : NETIO_EADDRINUSE;
}

static void netio__mem_unbind(netio__mem_end *e)
{
    netio__mem_end **at = &e->net->bound[e->local.port % NETIO__MEM_BUCKETS];
    if (!e->bound) return;
    e->bound = false;
    while (*at != e) at = &(*at)->bound_next;
    *at = e->bound_next;
}

// Where what goes from this loop to `to` comes from. Within a machine any family will do.
static int netio__mem_source(const netio__member *m, const netio__ip *to, netio__ip *out)
{
    bool fits = m->host.family == to->family;
    if (!fits && !netio__mem_loopback(to)) return NETIO_ENETUNREACH;
    *out = fits ? m->host : *to;
    out->port = 0;
    return 0;
}

// An address to listen on, bind to or come from, as >>socket takes it.
static int netio__mem_local(netio__mem_end *e, const char *text, const netio_socket_opts *o)
{
    netio_addr a;
    int err = netio_addr_parse(&a, text, strlen(text));
    if (err == 0 && a.dual && o->family == NETIO_IPV4)
        netio_addr_any(&a, NETIO_IPV4, netio_addr_port(&a));
    else if (err == 0 && !a.dual) err = netio__family_fits(&a, o->family);
    if (err < 0) return err;
    if (!netio__addr_get_ip(&e->local, &a)) return NETIO_EAFNOSUPPORT;
    e->dual = netio__ip_is_any(&e->local) && e->local.family == NETIO_IPV6 && !o->v6_only &&
              !(a.dual && o->family == NETIO_IPV6);
    netio__ip_unmap(&e->local);
    return o->balance ? (int)NETIO_ENOTSUP : 0;
}

// The address that leads from an end to its peer, and a port.
static int netio__mem_settle(netio__mem_end *e, const char *text, const netio_socket_opts *o)
{
    netio__ip chosen;
    int err = netio__mem_local(e, text ? text : ":0", o);
    if (err < 0) return err;
    if (!e->dual && e->local.family != e->peer.family) return NETIO_EAFNOSUPPORT;
    if (netio__ip_is_any(&e->local)) {
        err = netio__mem_source(e->member, &e->peer, &chosen);
        if (err < 0) return err;
        chosen.port = e->local.port;
        e->local = chosen;
        e->dual = false;
    }
    return netio__mem_bind(e);
}

static int netio__mem_peer(netio__ip *out, const netio_addr *a)
{
    netio_addr to = *a;
    netio__to_loopback(&to);
    if (!netio__addr_get_ip(out, &to)) return NETIO_EAFNOSUPPORT;
    netio__ip_unmap(out);
    return 0;
}

// --- streams -----------------------------------------------------------------------------------

static netio__mem_stream *netio__stream_make(netio__member *m, const netio_link *own)
{
    netio_network *net = m->loop->network;
    size_t size = 2 * sizeof(netio__mem_stream) + (own ? sizeof *own : 0);
    if (netio__mem_reserve(net, 2) < 0) return NULL;
    netio__mem_stream *s = (netio__mem_stream *)NETIO_MALLOC(size);
    if (!s) {
        net->sources -= 2;
        return NULL;
    }
    memset(s, 0, size);
    if (own) memcpy(s + 2, own, sizeof *own);
    for (int i = 0; i < 2; i++) {
        netio__mem_enter(&s[i].end, m, NETIO__MEM_STREAM);
        s[i].peer = &s[1 - i];
        s[i].second = i == 1;
        s[i].link = own ? (const netio_link *)(const void *)(s + 2) : NULL;
        s[i].link_gen = own ? UINT64_MAX : UINT64_MAX - 1;
    }
    return s;
}

static void netio__blocks_free(netio__mem_stream *s, netio__mem_block *k)
{
    while (k) {
        netio__mem_block *next = k->next;
        s->under_way -= k->len - k->off;
        s->blocks--;
        netio__mem_give(s->end.net, k, NETIO__MEM_BLOCK);
        k = next;
    }
}

// What would arrive after this time is not sent any more.
static void netio__stream_trim(netio__mem_stream *s, uint64_t us)
{
    netio__mem_block **at = &s->air;
    for (; *at && (*at)->us <= us; at = &(*at)->next) s->air_last = *at;
    netio__blocks_free(s, *at);
    *at = NULL;
}

// Nothing of it is under way any more.
static void netio__stream_drop(netio__mem_stream *s)
{
    netio__stream_trim(s, 0);
    s->start = 0;
    if (!s->tail_here) s->tail = 0;
    netio__heap_clear(&s->end.net->heap, &s->end.event.place);
}

static uint64_t netio__stream_arrival(netio__mem_stream *s, size_t len)
{
    const netio_link *l = netio__stream_link(s);
    uint64_t us = netio__mem_arrival(netio__mem_now(s->end.net), &s->wire, l, len);
    if (us > s->last_us) s->last_us = us;
    return s->last_us;
}

static void netio__stream_run(netio__mem_stream *s);

static void netio__stream_start(netio__mem_stream *s, int what)
{
    s->start = (uint8_t)what;
    s->start_us = netio__stream_arrival(s, 0);
    netio__stream_run(s);
}

static void netio__stream_end(netio__mem_stream *s, int what, uint64_t us)
{
    s->tail = (uint8_t)what;
    s->tail_here = false;
    s->tail_us = us;
    netio__stream_run(s);
}

static void netio__stream_fin(netio__mem_stream *s)
{
    s->shut = true;
    if (!s->tail && !s->error) netio__stream_end(s, NETIO__MEM_FIN, netio__stream_arrival(s, 0));
}

// Overtakes what still waits for the line.
static void netio__stream_reset(netio__mem_stream *s)
{
    uint64_t us = netio__mem_now(s->end.net) + (uint64_t)netio__stream_link(s)->latency_ms * 1000u;
    s->shut = true;
    if (s->tail == NETIO__MEM_RESET) return;
    netio__stream_trim(s, us);
    netio__stream_end(s, NETIO__MEM_RESET, us);
}

static void netio__stream_shut(netio__mem_stream *s, bool reset)
{
    if (s->peer->arrived || s->held_count || s->dialing) reset = true; // or it would be lost unsaid
    s->end.closed = true;
    s->listener = NULL;
    s->held_count = 0;
    netio__mem_unbind(&s->end);
    if (s->error) s->shut = true; // nobody is there
    else if (reset) netio__stream_reset(s);
    else netio__stream_fin(s);
}

// It was refused or reset: nothing more goes out; what came before can be read.
static void netio__stream_hit(netio__mem_stream *s, int err)
{
    if (s->end.closed) return;
    s->error = err;
    netio__stream_drop(s);
    if (s->listener && !s->connected) { // gone before it was there
        s->listener->pending--;
        s->listener = NULL;
        s->end.closed = true;
        netio__mem_release(&s->end);
    } else {
        netio__mem_ready(&s->end);
    }
}

static void netio__stream_syn(netio__mem_stream *s)
{
    netio__mem_stream *p = s->peer;
    netio_network *net = s->end.net;
    if (s->end.closed) return;
    netio__mem_end *e = netio__mem_find(net, NETIO__MEM_LISTENER, &s->end.peer, s->end.member);
    netio__mem_listener *l = e ? netio__mem_listener_of(e) : NULL;
    if (!l) {
        netio__stream_start(p, NETIO__MEM_REFUSE);
        return;
    }
    if (l->pending >= l->backlog) { // lost: again after 1 s, 2 s, 4 s..., as TCP does
        s->start = NETIO__MEM_SYN;
        s->start_us = netio__mem_now(net) + (UINT64_C(1000000) << s->tries);
        if (s->tries < 6) s->tries++;
        return;
    }
    l->pending++;
    p->listener = l;
    p->end.member = e->member;
    p->end.closed = false;
    netio__stream_start(p, NETIO__MEM_ACK);
}

// The part of the handshake that `s` sent has arrived.
static void netio__stream_greet(netio__mem_stream *s)
{
    netio__mem_stream *p = s->peer;
    int what = s->start;
    s->start = 0;
    if (what == NETIO__MEM_SYN) {
        netio__stream_syn(s);
    } else if (what == NETIO__MEM_REFUSE) {
        netio__stream_hit(p, NETIO_ECONNREFUSED);
    } else if (!p->end.closed) {
        p->connected = true;
        netio__mem_ready(&p->end);
        if (what == NETIO__MEM_ACK) {
            netio__stream_start(p, NETIO__MEM_OPEN);
            return;
        }
        netio__mem_listener *l = p->listener;
        if (l->queue) l->queue_last->queue_next = p;
        else l->queue = p;
        l->queue_last = p;
        netio__mem_ready(&l->end);
    }
}

static void netio__stream_land(netio__mem_stream *s)
{
    netio__mem_block *k = s->air;
    s->air = k->next;
    k->next = NULL;
    if (s->peer->end.closed) { // nobody reads it: the sender is told
        netio__blocks_free(s, k);
        netio__stream_reset(s->peer);
        return;
    }
    if (s->here) s->here_last->next = k;
    else s->here = k;
    s->here_last = k;
    s->arrived += k->len;
    netio__mem_ready(&s->peer->end);
}

static void netio__stream_finish(netio__mem_stream *s)
{
    bool broken = s->broken && !s->end.closed;
    s->tail_here = true;
    s->broken = false; // the peer's may come back the same way
    if (s->tail == NETIO__MEM_RESET) netio__stream_hit(s->peer, NETIO_ECONNRESET);
    else netio__mem_ready(&s->peer->end);
    if (broken) netio__stream_reset(s->peer);
}

// When the next thing that it sent arrives; NULL: nothing is under way.
static uint64_t *netio__stream_next(netio__mem_stream *s)
{
    if (s->start) return &s->start_us;
    if (s->air) return &s->air->us;
    return s->tail && !s->tail_here ? &s->tail_us : NULL;
}

// Lets arrive what is due; the rest waits in the heap, or for the link to be healed.
static void netio__stream_run(netio__mem_stream *s)
{
    netio_network *net = s->end.net;
    uint64_t *us;
    s->stalled = false;
    while ((us = netio__stream_next(s)) != NULL && *us <= netio__mem_now(net)) {
        s->stalled = netio__stream_link(s)->cut;
        if (s->stalled) break;
        if (s->start) netio__stream_greet(s);
        else if (s->air) netio__stream_land(s);
        else netio__stream_finish(s);
    }
    if (!us || s->stalled) netio__heap_clear(&net->heap, &s->end.event.place);
    else if (!s->end.event.place || net->heap.items[s->end.event.place - 1].us != *us)
        netio__mem_at(net, &s->end.event, *us);
}

static void netio__stream_heal(netio__mem_stream *s)
{
    const netio_link *l = netio__stream_link(s);
    uint64_t us = netio__mem_now(s->end.net) + (uint64_t)l->latency_ms * 1000u;
    uint64_t *next = netio__stream_next(s);
    if (!s->stalled || l->cut || !next) return;
    *next = us;
    if (s->last_us < us) s->last_us = us;
    netio__stream_run(s);
}

// --- sending and receiving ---------------------------------------------------------------------

static size_t netio__stream_room(netio__mem_stream *s)
{
    const netio_link *l = netio__stream_link(s);
    size_t window = l->window ? l->window : NETIO__MEM_WINDOW, room = 0;
    if (s->tail || s->error || s->blocks > window / 512 + 64) return 0; // or memory were the limit
    if (s->under_way < window) room = window - s->under_way;
    if (!l->reset_at) return room;
    uint64_t left = l->reset_at > s->sent ? l->reset_at - s->sent : 0;
    return left < room ? (size_t)left : room;
}

static netio__mem_block *netio__stream_block(netio__mem_stream *s, uint64_t us)
{
    netio__mem_block *k = (netio__mem_block *)netio__mem_take(s->end.net, NETIO__MEM_BLOCK);
    if (!k) return NULL;
    k->next = NULL;
    k->us = us;
    k->off = k->len = 0;
    if (s->air) s->air_last->next = k;
    else s->air = k;
    s->air_last = k;
    s->blocks++;
    return k;
}

// Sends some of these bytes; 0: no memory.
static size_t netio__stream_put(netio__mem_stream *s, const uint8_t *p, size_t len)
{
    const netio_link *l = netio__stream_link(s);
    size_t cap = NETIO__MEM_BLOCK - sizeof(netio__mem_block), n = len < cap ? len : cap;
    if (l->bandwidth && n > NETIO__MEM_SEGMENT) n = NETIO__MEM_SEGMENT;
    uint64_t now = netio__mem_now(s->end.net);
    netio__mem_block *k = s->air ? s->air_last : s->here ? s->here_last : NULL;
    bool joins = k && !l->bandwidth && k->len < cap; // comes with what was sent before
    if (joins && s->air) joins = k->us == netio__stream_arrival(s, 0);
    else if (joins) joins = !l->cut && !s->peer->end.closed && netio__stream_arrival(s, 0) <= now;
    if (!joins) {
        k = netio__stream_block(s, 0);
        if (!k) return 0;
        k->us = netio__stream_arrival(s, n);
    }
    if (n > cap - k->len) n = cap - k->len;
    memcpy((uint8_t *)(k + 1) + k->len, p, n);
    k->len += n;
    if (!s->air) s->arrived += n;
    s->under_way += n;
    s->sent += n;
    return n;
}

// Takes what the window, the link and chance allow. Returns bytes; NETIO_ENOMEM.
static ptrdiff_t netio__stream_take(netio__mem_stream *s, const netio_buf *bufs, size_t count)
{
    const netio_link *l = netio__stream_link(s);
    size_t room = netio__stream_room(s), done = 0, n = 1;
    if (room && l->send_max) {
        size_t some = netio__mem_some(s->end.net, l->send_max);
        if (some < room) room = some;
    }
    for (size_t i = 0; i < count && n && done < room; i++) {
        for (size_t at = 0; n && done < room && at < bufs[i].len; at += n, done += n) {
            size_t left = bufs[i].len - at;
            if (left > room - done) left = room - done;
            n = netio__stream_put(s, (const uint8_t *)bufs[i].data + at, left);
        }
    }
    if (done && s->arrived) netio__mem_ready(&s->peer->end);
    if (l->reset_at && s->sent >= l->reset_at && !s->tail) {
        s->broken = true;
        netio__stream_end(s, NETIO__MEM_RESET, s->last_us);
    } else if (s->air) {
        netio__stream_run(s);
    }
    return done || n ? (ptrdiff_t)done : (ptrdiff_t)NETIO_ENOMEM;
}

// Copies what was read out of the blocks and opens the window.
static void netio__stream_read(netio__mem_stream *from, uint8_t *out, size_t len)
{
    from->arrived -= len;
    from->under_way -= len;
    while (len) {
        netio__mem_block *k = from->here;
        size_t n = k->len - k->off < len ? k->len - k->off : len;
        memcpy(out, (const uint8_t *)(k + 1) + k->off, n);
        k->off += n;
        out += n;
        len -= n;
        if (k->off < k->len) break;
        from->here = k->next;
        from->blocks--;
        netio__mem_give(from->end.net, k, NETIO__MEM_BLOCK);
    }
    if (from->held_count || (from->end.want & NETIO_EV_WRITE)) netio__mem_ready(&from->end);
}

// --- what a stream tells -----------------------------------------------------------------------

static bool netio__stream_at_end(const netio__mem_stream *s)
{
    const netio__mem_stream *from = s->peer;
    if (s->told || from->arrived) return false;
    return s->error || (from->tail == NETIO__MEM_FIN && from->tail_here);
}

// Sending goes on, or fails. As long as somebody reads, the reader is told first.
static bool netio__stream_sends(netio__mem_stream *s)
{
    if (!s->held_count && !(s->end.want & NETIO_EV_WRITE)) return false;
    return s->error ? s->told || !(s->end.want & NETIO_EV_READ) : netio__stream_room(s) > 0;
}

static bool netio__stream_has(netio__mem_stream *s)
{
    if (s->late || netio__stream_sends(s)) return true;
    return (s->end.want & NETIO_EV_READ) && (s->peer->arrived || netio__stream_at_end(s));
}

static void netio__stream_tell_sends(netio__mem_stream *s)
{
    if (s->held_count) {
        ptrdiff_t n = s->error ? s->error : netio__stream_take(s, s->held, s->held_count);
        s->held_count = 0;
        netio__sent(s->end.node, n);
    } else {
        s->end.want &= (uint8_t) ~(unsigned)NETIO_EV_WRITE;
        netio__writable(s->end.node);
    }
}

static void netio__stream_tell_bytes(netio__mem_stream *s)
{
    netio__mem_end *e = &s->end;
    netio_loop *loop = e->node->loop;
    size_t n = s->peer->arrived, room = s->late;
    size_t piece = netio__mem_some(e->net, netio__stream_link(s)->piece_max);
    s->late = 0;
    if (e->want & NETIO_EV_READ) {
        room = netio__appetite(e->node);
        if (room == 0) netio__work(e->node); // to say so
        s->grant = room;
    }
    if (n > room) n = room;
    if (n > piece) n = piece;
    if (n > loop->opts.recv_buffer) n = loop->opts.recv_buffer;
    if (n == 0) return;
    s->grant -= n < s->grant ? n : s->grant;
    netio__stream_read(s->peer, loop->buf, n);
    netio__received(e->node, loop->buf, n);
    if (!e->closing && netio__stream_has(s)) netio__mem_ready(e);
}

static void netio__stream_report(netio__mem_stream *s)
{
    netio__mem_end *e = &s->end;
    if (s->dialing) {
        if (!s->connected && !s->error) return;
        s->dialing = false;
        netio__connected(e->node, s->connected ? 0 : s->error);
        return; // the end may be another node's now
    }
    if (netio__stream_sends(s)) netio__stream_tell_sends(s);
    if (e->closing) return;
    if (s->peer->arrived && (s->late || (e->want & NETIO_EV_READ))) {
        netio__stream_tell_bytes(s); // their end in the next turn, at the earliest
    } else if ((e->want & NETIO_EV_READ) && netio__stream_at_end(s)) {
        s->told = true;
        if (s->error) netio__failed(e->node, s->error);
        else netio__ended(e->node);
    }
}

// --- listeners ---------------------------------------------------------------------------------

static void netio__mem_listener_report(netio__mem_listener *l)
{
    for (size_t n = l->pending; n && l->queue && !l->end.closing && (l->end.want & NETIO_EV_READ);
         n--) {
        netio__mem_stream *s = l->queue;
        netio_addr peer;
        netio__io io;
        l->queue = s->queue_next;
        l->pending--;
        s->listener = NULL;
        netio__addr_set_ip(&peer, &s->end.peer);
        memset(&io, 0, sizeof io);
        io.memory = s;
        netio__accepted(l->end.node, io, &peer);
    }
}

static void netio__mem_listener_close(netio__mem_listener *l)
{
    netio__mem_end *next;
    netio__mem_unbind(&l->end);
    for (netio__mem_end *e = l->end.net->ends; e; e = next) {
        netio__mem_stream *s = netio__mem_stream_of(e);
        next = e->next;
        if (e->event.kind != NETIO__MEM_STREAM || s->listener != l) continue;
        netio__stream_shut(s, true);
        netio__mem_release(e);
    }
    l->end.closed = true;
}

// --- datagrams ---------------------------------------------------------------------------------

static size_t netio__packet_cost(size_t len) { return len + 512; }

// It is no longer under way, but its memory stays.
static void netio__packet_land(netio__mem_packet *p)
{
    netio__mem_socket *from = p->from;
    from->end.net->sources--;
    from->flying--;
    from->under_way -= netio__packet_cost(p->len);
    if (from->end.want & NETIO_EV_WRITE) netio__mem_ready(&from->end);
    netio__mem_release(&from->end);
}

static void netio__packet_free(netio_network *net, netio__mem_packet *p)
{
    netio__mem_give(net, p, sizeof *p + p->len);
}

// Nobody took it. A connected sender hears of that when the word has travelled back.
static void netio__packet_refused(netio__mem_packet *p, uint64_t latency_us)
{
    netio__mem_socket *from = p->from;
    netio_network *net = from->end.net;
    if (from->end.peer.family && !p->back && latency_us) {
        p->back = true;
        netio__mem_at(net, &p->event, netio__mem_now(net) + latency_us);
        return;
    }
    from->refused = from->end.peer.family != 0;
    if (from->refused) netio__mem_ready(&from->end);
    netio__packet_land(p);
    netio__packet_free(net, p);
}

static void netio__packet_arrive(netio__mem_packet *p)
{
    netio_network *net = p->from->end.net;
    const netio_link *l = netio__mem_link(net, &p->src, &p->dst);
    netio__mem_end *e = netio__mem_find(net, NETIO__MEM_SOCKET, &p->dst, p->from->end.member);
    netio__mem_socket *to = e ? netio__mem_socket_of(e) : NULL;
    if (e && e->peer.family) // it is connected, perhaps to another
        to = netio__mem_same(&e->peer, &p->src) && e->peer.port == p->src.port ? to : NULL;
    if (!l->cut && (p->back || !to)) {
        netio__packet_refused(p, (uint64_t)l->latency_ms * 1000u);
        return;
    }
    netio__packet_land(p);
    if (l->cut || to->queued >= NETIO__MEM_QUEUE) {
        netio__packet_free(net, p);
        return;
    }
    p->next = NULL;
    if (to->queue) to->queue_last->next = p;
    else to->queue = p;
    to->queue_last = p;
    to->queued += netio__packet_cost(p->len);
    netio__mem_ready(e);
}

static int netio__socket_put(netio__mem_socket *u, const netio__ip *src, const netio__ip *dst,
                             const netio_link *l, uint64_t us, const void *data, size_t len)
{
    netio_network *net = u->end.net;
    if (netio__mem_reserve(net, 1) < 0) return NETIO_ENOMEM;
    netio__mem_packet *p = (netio__mem_packet *)netio__mem_take(net, sizeof *p + len);
    if (!p) {
        net->sources--;
        return NETIO_ENOMEM;
    }
    memset(p, 0, sizeof *p);
    p->event.kind = NETIO__MEM_PACKET;
    p->from = u;
    p->src = *src;
    p->dst = *dst;
    p->len = len;
    if (len) memcpy(p + 1, data, len);
    u->flying++;
    u->under_way += netio__packet_cost(len);
    if (l->jitter_ms) us += netio__mem_random(net) % ((uint64_t)l->jitter_ms * 1000u + 1);
    if (us <= netio__mem_now(net)) netio__packet_arrive(p);
    else netio__mem_at(net, &p->event, us);
    return 0;
}

static bool netio__mem_chance(netio_network *net, int permille)
{
    return permille > 0 && netio__mem_random(net) % 1000 < (unsigned)permille;
}

static int netio__socket_transmit(netio__mem_socket *u, const netio__ip *src, const netio__ip *dst,
                                  const void *data, size_t len)
{
    netio_network *net = u->end.net;
    const netio_link *l = netio__mem_link(net, src, dst);
    uint64_t us = netio__mem_arrival(netio__mem_now(net), &u->wire, l, len);
    if (l->cut || netio__mem_chance(net, l->loss_permille)) return 0;
    int err = netio__socket_put(u, src, dst, l, us, data, len);
    if (err == 0 && netio__mem_chance(net, l->duplicate_permille))
        err = netio__socket_put(u, src, dst, l, us, data, len);
    return err;
}

static int netio__socket_send(netio__mem_socket *u, const netio_datagram *m)
{
    netio__ip src = u->end.local, dst = u->end.peer, chosen;
    size_t step = m->segment ? m->segment : m->len;
    int err = m->peer.len ? netio__mem_peer(&dst, &m->peer) : 0;
    if (err < 0) return err;
    if (!dst.family) return NETIO_ENOTCONN;
    if (src.family != dst.family && !u->end.dual) return NETIO_EAFNOSUPPORT;
    if (step > NETIO__MEM_DATAGRAM) return NETIO_EMSGSIZE;
    if (u->under_way >= NETIO__MEM_QUEUE) return NETIO_EAGAIN;
    if (netio__ip_is_any(&src)) {
        err = netio__mem_source(u->end.member, &dst, &chosen);
        if (err == 0 && m->local.len) err = netio__mem_peer(&chosen, &m->local);
        chosen.port = src.port;
        src = chosen;
    }
    size_t at = 0;
    do {
        size_t n = m->len - at < step ? m->len - at : step;
        if (err == 0) err = netio__socket_transmit(u, &src, &dst, (const uint8_t *)m->data + at, n);
        at += n;
    } while (err == 0 && at < m->len);
    return err;
}

// A batch, in slots of the loop's buffer.
static void netio__socket_tell(netio__mem_socket *u)
{
    netio__node *n = u->end.node;
    netio_datagram *m = n->loop->batch;
    size_t slots = netio__udp_slots(netio__udp_of(n)), count = 0;
    for (; u->queue && count < slots; count++, m++) {
        netio__mem_packet *p = u->queue;
        void *data = m->data;
        size_t cap = m->cap;
        memset(m, 0, sizeof *m);
        m->data = data;
        m->cap = cap;
        m->full = p->len;
        m->len = p->len < cap ? p->len : cap;
        m->truncated = p->len > cap;
        memcpy(data, p + 1, m->len);
        netio__addr_set_ip(&m->peer, &p->src);
        p->dst.port = 0;
        netio__addr_set_ip(&m->local, &p->dst);
        u->queue = p->next;
        u->queued -= netio__packet_cost(p->len);
        netio__packet_free(u->end.net, p);
    }
    netio__datagrams(n, n->loop->batch, count);
}

static bool netio__socket_has(const netio__mem_socket *u)
{
    if ((u->end.want & NETIO_EV_READ) && (u->queue || u->refused)) return true;
    return (u->end.want & NETIO_EV_WRITE) && u->under_way < NETIO__MEM_QUEUE;
}

static void netio__socket_report(netio__mem_socket *u)
{
    netio__mem_end *e = &u->end;
    if (u->refused && (e->want & NETIO_EV_READ)) {
        u->refused = false;
        netio__datagram_failed(e->node, NETIO_ECONNREFUSED);
    }
    if (!e->closing && u->queue && (e->want & NETIO_EV_READ)) netio__socket_tell(u);
    if (!e->closing && (e->want & NETIO_EV_WRITE) && u->under_way < NETIO__MEM_QUEUE) {
        e->want &= (uint8_t) ~(unsigned)NETIO_EV_WRITE;
        netio__writable(e->node);
    }
    if (!e->closing && netio__socket_has(u)) netio__mem_ready(e);
}

static void netio__socket_close(netio__mem_socket *u)
{
    netio__mem_unbind(&u->end);
    while (u->queue) {
        netio__mem_packet *p = u->queue;
        u->queue = p->next;
        netio__packet_free(u->end.net, p);
    }
    u->end.closed = true;
}

// --- the engine --------------------------------------------------------------------------------

static void netio__mem_shut(netio__mem_end *e, bool reset)
{
    e->closing = true;
    if (e->event.kind == NETIO__MEM_LISTENER) netio__mem_listener_close(netio__mem_listener_of(e));
    else if (e->event.kind == NETIO__MEM_SOCKET) netio__socket_close(netio__mem_socket_of(e));
    else netio__stream_shut(netio__mem_stream_of(e), reset);
}

// A listener, or an endpoint.
static int netio__mem_open(netio__node *n, int kind, size_t size, const char *address,
                           const char *peer, const netio_socket_opts *o)
{
    netio_addr a;
    netio__mem_end *e = (netio__mem_end *)NETIO_MALLOC(size);
    if (!e) return NETIO_ENOMEM;
    memset(e, 0, size);
    netio__mem_enter(e, n->loop->member, kind);
    int err = peer ? netio_addr_parse(&a, peer, strlen(peer)) : 0;
    if (err == 0 && peer) err = netio__mem_peer(&e->peer, &a);
    if (err == 0 && !peer) err = netio__mem_local(e, address ? address : ":0", o);
    if (err == 0) err = peer ? netio__mem_settle(e, address, o) : netio__mem_bind(e);
    if (err < 0) {
        netio__mem_leave(e);
        NETIO_FREE(e);
        return err;
    }
    e->node = n;
    n->io.memory = e;
    return 0;
}

static int netio__memory_listen(netio__node *n, const char *address, const netio_socket_opts *o)
{
    if (o->type && o->type != NETIO_STREAM) return NETIO_ENOTSUP;
    if (o->backlog < 0) return NETIO_EINVAL;
    int err =
        netio__mem_open(n, NETIO__MEM_LISTENER, sizeof(netio__mem_listener), address, NULL, o);
    if (err < 0) return err;
    netio__mem_listener_of(netio__mem_end_of(n))->backlog = o->backlog ? (size_t)o->backlog : 1024;
    return 0;
}

static int netio__memory_bind(netio__node *n, const char *address, const char *peer,
                              const netio_socket_opts *o)
{
    if (o->type && o->type != NETIO_DGRAM) return NETIO_ENOTSUP;
    return netio__mem_open(n, NETIO__MEM_SOCKET, sizeof(netio__mem_socket), address, peer, o);
}

static int netio__memory_connect(netio__node *n, const netio_addr *a, const netio_socket_opts *o)
{
    netio__ip to;
    int err = netio__mem_peer(&to, a);
    if (err < 0) return err;
    if (o->type && o->type != NETIO_STREAM) return NETIO_ENOTSUP;
    netio__mem_stream *s = netio__stream_make(n->loop->member, NULL);
    if (!s) return NETIO_ENOMEM;
    s->end.peer = to;
    s->peer->end.closed = true; // until somebody listens
    err = netio__mem_settle(&s->end, o->local, o);
    if (err < 0) {
        s->end.closed = true;
        netio__mem_release(&s->end);
        return err;
    }
    s->peer->end.local = to;
    s->peer->end.peer = s->end.local;
    s->dialing = true;
    s->end.node = n;
    n->io.memory = s;
    netio__stream_start(s, NETIO__MEM_SYN);
    return NETIO_EINPROGRESS;
}

static void netio__memory_own(netio__node *n)
{
    netio__mem_end *e = netio__mem_end_of(n);
    e->node = n;
    e->member = n->loop->member;
    e->want = 0;
}

static int netio__memory_want(netio__node *n, unsigned events)
{
    netio__mem_end *e = netio__mem_end_of(n);
    unsigned before = e->want;
    bool has = events != 0;
    e->want = (uint8_t)events;
    if (e->closing) return 0;
    if (e->event.kind == NETIO__MEM_STREAM) {
        netio__mem_stream *s = netio__mem_stream_of(e);
        // A read that was under way when it was stopped may still end in bytes.
        bool stops = (before & NETIO_EV_READ) && !(events & NETIO_EV_READ);
        if (stops && s->peer->arrived && s->grant && (netio__mem_random(e->net) & 1))
            s->late =
                netio__mem_some(e->net, s->grant < NETIO__MEM_LATE ? s->grant : NETIO__MEM_LATE);
        if (!(before & NETIO_EV_READ) && (events & NETIO_EV_READ)) s->grant = netio__appetite(n);
        has = netio__stream_has(s);
    } else if (e->event.kind == NETIO__MEM_SOCKET) {
        has = netio__socket_has(netio__mem_socket_of(e));
    }
    if (has) netio__mem_ready(e);
    return 0;
}

static ptrdiff_t netio__memory_send(netio__node *n, const netio_buf *bufs, size_t count, bool lent)
{
    netio__mem_stream *s = netio__mem_stream_of(netio__mem_end_of(n));
    const netio_link *l = netio__stream_link(s);
    if (s->shut) return NETIO_EPIPE;
    if (lent) {
        if (count > NETIO__MEM_HELD) count = NETIO__MEM_HELD;
        memcpy(s->held, bufs, count * sizeof *bufs);
        s->held_count = count;
        if (netio__stream_sends(s)) netio__mem_ready(&s->end);
        return NETIO_EINPROGRESS;
    }
    if (s->error) return s->told ? (int)NETIO_EPIPE : s->error;
    if (l->send_max && netio__mem_random(s->end.net) % 4 == 0) return NETIO_EAGAIN;
    ptrdiff_t sent = netio__stream_take(s, bufs, count);
    return sent ? sent : (ptrdiff_t)NETIO_EAGAIN;
}

static ptrdiff_t netio__memory_send_file(netio__node *n, netio_file file, uint64_t off,
                                         uint64_t len)
{
    (void)n, (void)file, (void)off, (void)len;
    return NETIO_ENOTSUP;
}

static ptrdiff_t netio__memory_send_batch(netio__node *n, const netio_datagram *msgs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int err = netio__socket_send(netio__mem_socket_of(netio__mem_end_of(n)), &msgs[i]);
        if (err < 0) return i ? (ptrdiff_t)i : err;
    }
    return (ptrdiff_t)count;
}

static int netio__memory_shutdown(netio__node *n)
{
    netio__mem_stream *s = netio__mem_stream_of(netio__mem_end_of(n));
    netio__stream_fin(s);
    return s->error;
}

static void netio__memory_close(netio__node *n, bool reset)
{
    netio__mem_end *e = netio__mem_end_of(n);
    netio__mem_shut(e, reset);
    netio__mem_ready(e);
}

static void netio__memory_discard(netio_loop *loop, netio__io io)
{
    netio__mem_end *e = (netio__mem_end *)io.memory;
    (void)loop;
    netio__mem_shut(e, true);
    netio__mem_release(e);
}

static int netio__memory_no_socket(netio__node *n, netio_socket *out) // nor detach
{
    (void)n, (void)out;
    return NETIO_ENOTSUP;
}

static int netio__memory_name(netio__node *n, netio_addr *out, bool peer)
{
    const netio__mem_end *e = netio__mem_end_of(n);
    const netio__ip *ip = peer ? &e->peer : &e->local;
    if (!ip->family) return NETIO_ENOTCONN;
    netio__addr_set_ip(out, ip);
    return 0;
}

static bool netio__mem_same_name(const char *a, const char *b)
{
    for (;; a++, b++) {
        int x = *a >= 'A' && *a <= 'Z' ? *a + 32 : *a, y = *b >= 'A' && *b <= 'Z' ? *b + 32 : *b;
        if (x != y) return false;
        if (x == 0) return true;
    }
}

static int netio__memory_lookup(netio_loop *loop, const char *host_port, netio_addr *out,
                                size_t *count)
{
    netio__lookup q;
    memset(&q, 0, sizeof q);
    int err = netio__resolve_literal(&q, host_port);
    if (err != NETIO_EAGAIN) return err < 0 ? err : (int)NETIO_EINVAL; // no name
    *count = 0;
    for (const netio__mem_name *k = loop->network->names; k; k = k->next) {
        if (!netio__mem_same_name((const char *)(k + 1), q.host)) continue;
        if (*count == NETIO_RESOLVE_MAX) break;
        netio__addr_set_ip(&out[*count], &k->ip);
        netio_addr_set_port(&out[(*count)++], q.port);
    }
    return *count ? 0 : NETIO_EAI_NONAME;
}

// --- time, and telling -------------------------------------------------------------------------

// Whatever arrives by now.
static void netio__mem_step(netio_network *net)
{
    while (net->heap.count && net->heap.items[0].us <= netio__mem_now(net)) {
        netio__mem_event *e = (netio__mem_event *)(void *)net->heap.items[0].place;
        netio__heap_clear(&net->heap, &e->place);
        if (e->kind == NETIO__MEM_STREAM) netio__stream_run((netio__mem_stream *)(void *)e);
        else netio__packet_arrive((netio__mem_packet *)(void *)e);
    }
}

static void netio__mem_report(netio__mem_end *e)
{
    if (e->closing) {
        netio__node *n = e->node;
        e->node = NULL;
        netio__closed(n);
        netio__mem_release(e);
    } else if (e->event.kind == NETIO__MEM_STREAM) {
        netio__stream_report(netio__mem_stream_of(e));
    } else if (e->event.kind == NETIO__MEM_LISTENER) {
        netio__mem_listener_report(netio__mem_listener_of(e));
    } else {
        netio__socket_report(netio__mem_socket_of(e));
    }
}

// What lines up meanwhile waits for the next turn.
static void netio__memory_due(netio_loop *loop)
{
    netio__member *m = loop->member;
    if (!m) return;
    netio_network *net = loop->network;
    netio__mem_step(net);
    netio__mem_end *last = m->ready ? m->ready_last : NULL, *e = NULL;
    net->depth++;
    while (m->ready && e != last) {
        e = m->ready;
        m->ready = e->ready_next;
        e->ready = false;
        netio__mem_report(e);
    }
    net->depth--;
    netio__mem_sweep(net);
}

static int netio__memory_wait(netio_loop *loop, uint64_t until_us)
{
    (void)until_us; // others move the clock, see netio__network_drive
    netio__loop_tick(loop);
    loop->woken = true;
    netio__memory_due(loop);
    return 0;
}

static uint64_t netio__memory_next(netio_loop *loop)
{
    if (!loop->member) return NETIO__NEVER_US;
    if (loop->member->ready) return 0;
    return loop->network->heap.count ? loop->network->heap.items[0].us : NETIO__NEVER_US;
}

// Of structs that begin with a pointer to the next one.
static void netio__mem_free_list(void *list)
{
    while (list) {
        void *next;
        memcpy(&next, list, sizeof next);
        NETIO_FREE(list);
        list = next;
    }
}

static void netio__network_free(netio_network *net)
{
    while (net->heap.count) { // datagrams whose senders are gone
        netio__mem_packet *p = (netio__mem_packet *)(void *)net->heap.items[0].place;
        netio__heap_clear(&net->heap, &p->event.place);
        netio__packet_land(p);
        netio__packet_free(net, p);
    }
    netio__mem_sweep(net);
    netio__mem_free_list(net->rules);
    netio__mem_free_list(net->names);
    netio__mem_free_list(net->pool);
    NETIO_FREE(net->heap.items);
    NETIO_FREE(net);
}

// After a fork its ends are still open; nobody is told.
static void netio__memory_leave(netio_loop *loop, bool forked)
{
    netio__member *m = loop->member, **at;
    netio_network *net = loop->network;
    (void)forked;
    if (!m) return;
    for (netio__mem_end *e = net->ends, *next; e; e = next) {
        next = e->next;
        if (e->member != m) continue;
        e->ready = false;
        e->node = NULL;
        if (!e->closed) netio__mem_shut(e, true);
        e->member = NULL;
        netio__mem_release(e);
    }
    for (at = &net->members; *at != m;) at = &(*at)->next;
    *at = m->next;
    if (net->cursor == m) net->cursor = m->next;
    NETIO_FREE(m);
    loop->member = NULL;
    netio__mem_sweep(net);
    if (net->real) netio__network_free(net);
}

static const netio__engine_ops netio__memory_ops = {
    netio__memory_listen,    netio__memory_connect,    netio__memory_bind,
    netio__memory_own,       netio__memory_want,       netio__memory_send,
    netio__memory_send_file, netio__memory_send_batch, netio__memory_shutdown,
    netio__memory_close,     netio__memory_discard,    netio__memory_no_socket,
    netio__memory_name,      netio__memory_no_socket,  netio__memory_lookup,
    netio__memory_wait,      netio__memory_next,       netio__memory_due,
    netio__memory_leave};

// --- networks ----------------------------------------------------------------------------------

static bool netio__link_ok(const netio_link *l)
{
    return l->latency_ms >= 0 && l->jitter_ms >= 0 && l->loss_permille >= 0 &&
           l->loss_permille <= 1000 && l->duplicate_permille >= 0 && l->duplicate_permille <= 1000;
}

NETIO_API int netio_network_create(netio_network **out, const netio_network_opts *opts)
{
    if (!out || (opts && !netio__link_ok(&opts->link))) return NETIO_EINVAL;
    netio_network *net = (netio_network *)NETIO_MALLOC(sizeof *net);
    if (!net) return NETIO_ENOMEM;
    memset(net, 0, sizeof *net);
    if (opts) net->link = opts->link;
    net->random = opts && opts->seed ? opts->seed : 1;
    net->now_us = 1000000; // not 0, which says "never" in places
    *out = net;
    return 0;
}

NETIO_API int netio_network_destroy(netio_network *net)
{
    if (!net) return 0;
    if (net->members || net->driving) return NETIO_EBUSY;
    netio__network_free(net);
    return 0;
}

NETIO_API uint64_t netio_network_now_us(const netio_network *net) { return net->now_us; }

static int netio__mem_host(netio__ip *out, const char *host)
{
    int err = netio__parse_ip(out, host, strlen(host));
    netio__ip_unmap(out);
    return err < 0 ? (int)NETIO_EINVAL : 0;
}

NETIO_API int netio_network_name(netio_network *net, const char *name, const char *host)
{
    netio__ip ip;
    if (!net || !name || !host || !netio__host_ok(name)) return NETIO_EINVAL;
    int err = netio__mem_host(&ip, host);
    if (err < 0) return err;
    netio__mem_name **at = &net->names;
    for (; *at; at = &(*at)->next)
        if (netio__mem_same(&(*at)->ip, &ip) && netio__mem_same_name((char *)(*at + 1), name))
            return 0;
    size_t size = strlen(name) + 1;
    netio__mem_name *k = (netio__mem_name *)NETIO_MALLOC(sizeof *k + size);
    if (!k) return NETIO_ENOMEM;
    k->next = NULL;
    k->ip = ip;
    memcpy(k + 1, name, size);
    *at = k;
    return 0;
}

// Rules that can never fit again are forgotten, so that cutting and healing a link costs nothing.
static void netio__rules_add(netio_network *net, netio__mem_rule *rule)
{
    netio__mem_rule **at = &net->rules;
    while (*at) {
        netio__mem_rule *r = *at;
        if (netio__mem_fits(rule, &r->a, &r->b) || netio__mem_fits(rule, &r->b, &r->a)) {
            *at = r->next;
            NETIO_FREE(r);
        } else {
            at = &r->next;
        }
    }
    rule->next = net->rules;
    net->rules = rule;
    net->link_gen++;
}

NETIO_API int netio_network_link(netio_network *net, const char *host_a, const char *host_b,
                                 const netio_link *link)
{
    netio__ip a, b;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    if (!net || !link || !netio__link_ok(link)) return NETIO_EINVAL;
    int err = host_a ? netio__mem_host(&a, host_a) : 0;
    if (err == 0 && host_b) err = netio__mem_host(&b, host_b);
    if (err < 0) return err;
    netio__mem_rule *rule = (netio__mem_rule *)NETIO_MALLOC(sizeof *rule);
    if (!rule) return NETIO_ENOMEM;
    rule->a = a;
    rule->b = b;
    rule->link = *link;
    netio__rules_add(net, rule);
    for (netio__mem_end *e = net->ends; e; e = e->next)
        if (e->event.kind == NETIO__MEM_STREAM) netio__stream_heal(netio__mem_stream_of(e));
    return 0;
}

// Puts a loop on its network; one that has none gets one of its own, for pairs, on its own clock.
static int netio__memory_attach(netio_loop *loop)
{
    netio_network *net = loop->opts.network;
    netio__ip host;
    if (loop->member) return 0;
    int err = netio__mem_host(&host, net && loop->opts.host ? loop->opts.host : "127.0.0.1");
    if (err < 0 || netio__ip_is_any(&host)) return NETIO_EINVAL;
    netio__member *m = (netio__member *)NETIO_MALLOC(sizeof *m);
    if (!m) return NETIO_ENOMEM;
    memset(m, 0, sizeof *m);
    if (!net) err = netio_network_create(&net, NULL);
    if (err < 0) {
        NETIO_FREE(m);
        return err;
    }
    net->real = !loop->opts.network;
    m->loop = loop;
    m->host = host;
    netio__member **at = &net->members;
    while (*at) at = &(*at)->next;
    *at = m;
    loop->member = m;
    loop->network = net;
    loop->virtual_clock = !net->real;
    loop->engines[loop->poller ? 1 : 0] = &netio__memory_ops;
    return 0;
}

// Joins two nodes of a loop.
static int netio__memory_pair(netio__node *a, netio__node *b, const netio_link *link)
{
    if (!netio__link_ok(link)) return NETIO_EINVAL;
    netio__mem_stream *s = netio__stream_make(a->loop->member, link);
    if (!s) return NETIO_ENOMEM;
    for (int i = 0; i < 2; i++) {
        s[i].end.local = s[1 - i].end.peer = s[i].end.member->host;
        s[i].end.local.port = s[1 - i].end.peer.port = netio__mem_next_port(s[i].end.net);
    }
    for (int i = 0; i < 2; i++) {
        netio__node *n = i == 0 ? a : b;
        s[i].connected = true;
        n->io.memory = &s[i];
        netio__memory_own(n);
    }
    return 0;
}

// --- running loops on the virtual clock --------------------------------------------------------

static int netio__turn(netio_loop *loop, uint64_t until_us);
static bool netio__loop_over(const netio_loop *loop);
static uint64_t netio__loop_next(netio_loop *loop);

// One turn of each loop that has something to do now. Sets how many callbacks `only` ran; returns
// how many turns there were, or an error.
static int netio__network_round(netio_network *net, netio_loop *only, int *ran)
{
    int turns = 0;
    netio__mem_step(net);
    for (netio__member *m = net->members; m; m = net->cursor) {
        netio_loop *loop = m->loop;
        net->cursor = m->next;
        if (netio__loop_over(loop) || (!m->ready && netio__loop_next(loop) > net->now_us)) continue;
        bool running = loop->running; // the whole time, if it is `only`
        loop->running = true;
        loop->thread = netio__thread_id();
        int n = netio__turn(loop, net->now_us);
        loop->running = running;
        if (n < 0) return n;
        turns++;
        if (loop == only) *ran += n;
        if (loop == only ? netio__loop_over(loop) : !only && loop->stopped) break;
    }
    return turns;
}

static uint64_t netio__network_next(netio_network *net)
{
    uint64_t next = net->heap.count ? net->heap.items[0].us : NETIO__NEVER_US;
    for (netio__member *m = net->members; m; m = m->next) {
        if (netio__loop_over(m->loop)) continue;
        uint64_t us = m->ready ? 0 : netio__loop_next(m->loop);
        if (us < next) next = us;
    }
    return next;
}

static bool netio__network_over(const netio_network *net, const netio_loop *only, bool once)
{
    if (only) return once ? only->stopped : netio__loop_over(only);
    for (const netio__member *m = net->members; m; m = m->next)
        if (m->loop->stopped) return true;
    return false;
}

// `once`: until `only` has run a callback.
static int netio__network_go(netio_network *net, netio_loop *only, uint64_t until_us, bool once)
{
    int err = 0, ran = 0;
    if (net->driving) return NETIO_EBUSY;
    net->driving = true;
    if (only) {
        only->running = true;
        only->thread = netio__thread_id();
    }
    while (!netio__network_over(net, only, once)) {
        err = netio__network_round(net, only, &ran);
        if (err < 0 || (once && ran)) break;
        if (err > 0) continue;
        uint64_t next = netio__network_next(net);
        if (next > until_us || next == NETIO__NEVER_US) {
            if (until_us != NETIO__NEVER_US && until_us > net->now_us) net->now_us = until_us;
            break;
        }
        if (next > net->now_us) net->now_us = next;
    }
    net->driving = false;
    for (netio__member *m = net->members; m; m = m->next) netio__loop_tick(m->loop);
    if (only) only->running = false;
    if (once) only->stopped = false;
    return err < 0 ? err : ran;
}

// Runs all loops of a network until `only` is over (NULL: one was stopped), nothing is left that
// could happen, or it is `until_us`. Only when no loop has anything to do now does time pass.
static int netio__network_drive(netio_network *net, netio_loop *only, uint64_t until_us)
{
    int err = netio__network_go(net, only, until_us, false);
    return err < 0 ? err : 0;
}

// Likewise, until `only` has run callbacks. Returns their number.
static int netio__network_once(netio_network *net, netio_loop *only, uint64_t until_us)
{
    return netio__network_go(net, only, until_us, true);
}

NETIO_API int netio_network_run(netio_network *net, int duration_ms)
{
    if (!net) return NETIO_EINVAL;
    uint64_t until =
        duration_ms < 0 ? NETIO__NEVER_US : net->now_us + (uint64_t)duration_ms * 1000u;
    int err = netio__network_drive(net, NULL, until);
    for (netio__member *m = net->members; m && err != NETIO_EBUSY; m = m->next)
        m->loop->stopped = false;
    return err;
}

//================================================================================================
// >>run.c                                                                  loops, and their turns
//================================================================================================

static void netio__closed(netio__node *n)
{
    switch (n->kind) {
    case NETIO__CONN: netio__conn_closed(netio__conn_of(n)); return;
    case NETIO__UDP: netio__udp_of(n)->gone = true; break;
    default: n->io.socket = NETIO_INVALID_SOCKET; break;
    }
    netio__work(n); // freed at the end of the turn
}

static void netio__writable(netio__node *n)
{
    if (n->kind == NETIO__CONN) netio__conn_writable(netio__conn_of(n));
    else if (n->kind == NETIO__UDP) netio__udp_writable(netio__udp_of(n));
}

static void netio__node_timer(netio__node *n)
{
    netio__attempt_node *attempt = (netio__attempt_node *)(void *)n;
    netio__wish *wish = (netio__wish *)(void *)n;
    switch (n->kind) {
    case NETIO__CONN: netio__conn_timer(netio__conn_of(n)); return;
    case NETIO__LISTENER: netio__listener_feed(netio__listener_of(n)); return;
    case NETIO__ATTEMPT:
        if (attempt->c) netio__attempt_again(attempt);
        return;
    case NETIO__UDP: netio__udp_end(netio__udp_of(n), NETIO_ETIMEDOUT); return;
    case NETIO__LOOKUP: // one that has an answer is told so at the end of the turn
        if (wish->done && !wish->answer) netio__wish_end(wish, NETIO_ETIMEDOUT, NULL, 0);
        return;
    default: netio__timer_due((netio__timer *)(void *)n); return;
    }
}

static void netio__node_work(netio__node *n)
{
    switch (n->kind) {
    case NETIO__CONN: netio__conn_work(netio__conn_of(n)); return;
    case NETIO__LISTENER: netio__listener_free(netio__listener_of(n)); return;
    case NETIO__UDP: netio__udp_work(netio__udp_of(n)); return;
    case NETIO__LOOKUP: netio__wish_work((netio__wish *)(void *)n); return;
    default: netio__node_free(n); return; // attempts and watches that are over
    }
}

// --- a turn ------------------------------------------------------------------------------------

static bool netio__loop_idle(netio_loop *loop)
{
    return loop->active == 0 && !loop->work && !loop->released && !netio__posts_wait(loop);
}

static bool netio__finished(const netio_loop *loop)
{
    return loop->finishing && loop->finish_begun && loop->slabs[NETIO__CONN].live == 0 &&
           !loop->work && !loop->released;
}

static bool netio__loop_over(const netio_loop *loop)
{
    return loop->stopped || netio__finished(loop) ||
           netio__loop_idle((netio_loop *)(uintptr_t)loop);
}

// When something is due that no engine reports.
static uint64_t netio__loop_next(netio_loop *loop)
{
    netio__timers_settle(loop);
    uint64_t next = loop->heap.count ? loop->heap.items[0].us : NETIO__NEVER_US;
    if (loop->work || loop->released || loop->woken || loop->stopped) return 0;
    if (loop->finishing && !loop->finish_begun) return 0;
    if (loop->finishing && loop->finish_us < next) next = loop->finish_us;
    if (loop->virtual_clock) return netio__posts_wait(loop) ? 0 : next;
    if (loop->network) {
        uint64_t due = loop->engines[1]->next(loop);
        if (due < next) next = due;
    }
    return next;
}

// Asks each connection to end, once; at the deadline the rest is aborted.
static void netio__finish_step(netio_loop *loop)
{
    netio__node *n;
    bool begin = !loop->finish_begun, over = loop->now_us >= loop->finish_us;
    if (!loop->finishing || (!begin && !over)) return;
    loop->finish_begun = true;
    for (size_t i = 0; (n = netio__slab_at(&loop->slabs[NETIO__CONN], i)) != NULL; i++) {
        netio__conn *c = netio__conn_of(n);
        if (n->gen && c->state == NETIO__OPEN && (c->flags & NETIO__TELL_OPEN)) netio__tell_open(c);
        if (!n->gen || c->state == NETIO__OVER) continue;
        if (over || c->state < NETIO__OPEN || (c->flags & NETIO__TELL_OPEN)) {
            netio__os_set_error(0);
            netio__conn_end(c, over ? NETIO_ECONNABORTED : NETIO_ECANCELED, NETIO_STAGE_NONE);
        } else if (c->state != NETIO__OPEN || (c->flags & NETIO__CLOSE_ASKED)) {
            // On its way out already.
        } else if (c->handler->on_stop) {
            loop->calls++;
            c->handler->on_stop(netio__conn_handle(c));
        } else {
            netio__conn_close_start(c);
        }
    }
}

static void netio__stats_publish(netio_loop *loop)
{
    loop->stats.active = loop->slabs[NETIO__CONN].live;
    netio__os_lock(&loop->lock);
    loop->published = loop->stats;
    netio__os_unlock(&loop->lock);
}

#if NETIO_DEBUG
static void netio__turn_begins(netio_loop *loop) { loop->turn_us = netio__os_now_us(); }

// A handler that holds the loop is a bug that nobody sees otherwise.
static void netio__turn_ends(netio_loop *loop)
{
    if (netio__os_now_us() - loop->turn_us < (uint64_t)loop->opts.slow_ms * 1000u) return;
    loop->stats.slow++;
    netio__log(loop, NETIO_LOG_WARN, "a turn held the loop for longer than slow_ms", 0);
}
#else
static void netio__turn_begins(netio_loop *loop) { (void)loop; }

static void netio__turn_ends(netio_loop *loop) { (void)loop; }
#endif

// Waits until `until_us` at most and does what is due. Returns callbacks run, or an error.
static int netio__turn(netio_loop *loop, uint64_t until_us)
{
    uint64_t calls = loop->calls, next = netio__loop_next(loop);
    int err = netio__ops_of(loop)->wait(loop, next < until_us ? next : until_us);
    if (err < 0) return err;
    netio__turn_begins(loop);
    loop->stats.turns++;
    if (!loop->stopped) {
        if (loop->network && !loop->virtual_clock) loop->engines[1]->due(loop);
        if (loop->woken) {
            loop->woken = false;
            netio__posts_run(loop, false);
            netio__names_answers(loop);
        }
        netio__timers_run(loop);
        netio__finish_step(loop);
        netio__work_run(loop);
        netio__releases_run(loop);
    }
    netio__turn_ends(loop);
    netio__stats_publish(loop);
    calls = loop->calls - calls;
    return calls > INT32_MAX ? INT32_MAX : (int)calls;
}

// What calls since the last turn have left to do. Returns callbacks run.
static uint64_t netio__catch_up(netio_loop *loop)
{
    uint64_t calls = loop->calls;
    if (loop->work && !loop->stopped) netio__work_run(loop);
    return loop->calls - calls;
}

static int netio__network_drive(netio_network *net, netio_loop *only, uint64_t until_us);
static int netio__network_once(netio_network *net, netio_loop *only, uint64_t until_us);

static void netio__run_done(netio_loop *loop)
{
    if (netio__finished(loop)) loop->finishing = loop->finish_begun = false;
    loop->running = loop->stopped = false;
}

NETIO_API int netio_loop_run(netio_loop *loop)
{
    int err = 0;
    if (!loop) return NETIO_EINVAL;
    if (loop->running) return NETIO_EBUSY;
    if (loop->virtual_clock) {
        err = netio__network_drive(loop->network, loop, NETIO__NEVER_US);
        if (err != NETIO_EBUSY) netio__run_done(loop);
        return err < 0 ? err : 0;
    }
    loop->running = true;
    loop->thread = netio__thread_id();
    netio__loop_tick(loop);
    do {
        bool now = netio__catch_up(loop) > 0 || netio__loop_idle(loop);
        err = netio__turn(loop, now ? loop->now_us : NETIO__NEVER_US);
    } while (err >= 0 && !netio__loop_over(loop));
    netio__run_done(loop);
    return err < 0 ? err : 0;
}

NETIO_API int netio_loop_run_once(netio_loop *loop, int timeout_ms)
{
    if (!loop) return NETIO_EINVAL;
    if (loop->running) return NETIO_EBUSY;
    netio__loop_tick(loop);
    uint64_t until = timeout_ms < 0 ? NETIO__NEVER_US : netio__in_ms(loop, timeout_ms);
    if (loop->virtual_clock) return netio__network_once(loop->network, loop, until);
    loop->running = true;
    loop->thread = netio__thread_id();
    uint64_t before = netio__catch_up(loop);
    int calls = netio__turn(loop, before ? loop->now_us : until);
    netio__run_done(loop);
    return calls < 0 || before > INT32_MAX / 2 ? calls : calls + (int)before;
}

NETIO_API void netio_loop_stop(netio_loop *loop)
{
    if (loop->poller) netio__wake_write(loop->poller->wake[1], true);
    else loop->stopped = true;
}

NETIO_API void netio_loop_finish(netio_loop *loop, int timeout_ms)
{
    netio__node *n;
    netio__loop_tick(loop);
    if (loop->finishing) timeout_ms = 0; // the second time
    loop->finishing = true;
    loop->finish_us = timeout_ms < 0 ? NETIO__NEVER_US : netio__in_ms(loop, timeout_ms);
    for (size_t i = 0; (n = netio__slab_at(&loop->slabs[NETIO__LISTENER], i)) != NULL; i++)
        if (n->gen) netio__listener_end(netio__listener_of(n));
    for (size_t i = 0; (n = netio__slab_at(&loop->slabs[NETIO__UDP], i)) != NULL; i++)
        if (n->gen) netio_udp_close(netio__udp_handle(netio__udp_of(n)));
}

NETIO_API netio_socket netio_loop_poll_fd(const netio_loop *loop)
{
    return loop->poller ? netio_poller_fd(loop->poller) : NETIO_INVALID_SOCKET;
}

NETIO_API int netio_loop_next_timeout(const netio_loop *loop)
{
    netio_loop *l = (netio_loop *)(uintptr_t)loop;
    netio__loop_tick(l);
    return netio__wait_ms(l, netio__loop_next(l));
}

NETIO_API uint64_t netio_loop_now_ms(const netio_loop *loop) { return loop->now_us / 1000u; }

NETIO_API void netio_loop_stats(netio_loop *loop, netio_stats *out)
{
    netio__os_lock(&loop->lock);
    *out = loop->published;
    netio__os_unlock(&loop->lock);
}

// --- making and ending --------------------------------------------------------------------------

static netio_loop_opts netio__no_loop_opts; // all zero, never written

static void netio__loop_defaults(netio_loop *loop, const netio_loop_opts *o)
{
    static const size_t sizes[NETIO__KINDS] = {sizeof(netio__conn),         sizeof(netio__listener),
                                               sizeof(netio__attempt_node), sizeof(netio__udp),
                                               sizeof(netio__watch),        sizeof(netio__timer),
                                               sizeof(netio__wish),         sizeof(netio__signal)};
    loop->opts = *o;
    loop->opts.recv_buffer = netio__size_or(o->recv_buffer, 256 * 1024);
    if (loop->opts.recv_buffer < 4096) loop->opts.recv_buffer = 4096;
    loop->opts.turn_budget = netio__size_or(o->turn_budget, 1024 * 1024);
    loop->opts.lookups_max = netio__size_or(o->lookups_max, 1024);
    loop->opts.resolver_threads = netio__size_or(o->resolver_threads, 4);
    loop->opts.slow_ms = netio__or_default(o->slow_ms, 100);
    for (int i = 0; i < NETIO__KINDS; i++) loop->slabs[i].size = sizes[i];
    loop->signal_pipe[0] = loop->signal_pipe[1] = NETIO_INVALID_SOCKET;
    loop->engines[0] = o->network ? &netio__memory_ops : &netio__ready_ops;
    loop->engines[1] = &netio__memory_ops;
}

// Memory that no node owns.
static void netio__loop_free(netio_loop *loop)
{
    for (int i = 0; i < NETIO__KINDS; i++) {
        for (size_t j = 0; j < loop->slabs[i].count; j++) NETIO_FREE(loop->slabs[i].blocks[j]);
        NETIO_FREE(loop->slabs[i].blocks);
    }
    for (int i = 0; i < 2; i++) {
        while (loop->pool[i]) {
            netio__chunk *next = loop->pool[i]->next;
            NETIO_FREE(loop->pool[i]);
            loop->pool[i] = next;
        }
    }
    NETIO_FREE(loop->spare);
    NETIO_FREE(loop->heap.items);
    NETIO_FREE(loop->closing);
    NETIO_FREE(loop->batch);
    NETIO_FREE(loop->buf);
    netio__os_sync_close(&loop->lock, &loop->unused);
    NETIO_FREE(loop);
}

NETIO_API int netio_loop_create(netio_loop **out, const netio_loop_opts *opts)
{
    const netio_loop_opts *o = opts ? opts : &netio__no_loop_opts;
    if (!out) return NETIO_EINVAL;
    netio_loop *loop = (netio_loop *)NETIO_MALLOC(sizeof *loop);
    if (!loop) return NETIO_ENOMEM;
    memset(loop, 0, sizeof *loop);
    int err = netio__os_sync_open(&loop->lock, &loop->unused);
    if (err < 0) {
        NETIO_FREE(loop);
        return err;
    }
    netio__loop_defaults(loop, o);
    loop->buf = (uint8_t *)NETIO_MALLOC(loop->opts.recv_buffer);
    if (!loop->buf) err = NETIO_ENOMEM;
    if (err == 0)
        err =
            o->network ? netio__memory_attach(loop) : netio_poller_open(&loop->poller, o->backend);
    if (err < 0) {
        netio__loop_free(loop);
        return err;
    }
    netio__loop_tick(loop);
    loop->stats.opened_ms = loop->now_us / 1000u;
    netio__stats_publish(loop);
    *out = loop;
    return 0;
}

static void netio__node_end(netio__node *n)
{
    netio__wish *wish = (netio__wish *)(void *)n;
    switch (n->kind) {
    case NETIO__CONN:
        netio__os_set_error(0);
        netio__conn_end(netio__conn_of(n), NETIO_ECANCELED, NETIO_STAGE_NONE);
        return;
    case NETIO__LISTENER: netio__listener_end(netio__listener_of(n)); return;
    case NETIO__UDP: netio__udp_end(netio__udp_of(n), NETIO_ECANCELED); return;
    case NETIO__LOOKUP:
        netio__unwork(n);
        if (wish->done) netio__wish_end(wish, NETIO_ECANCELED, NULL, 0);
        else netio__wish_work(wish);
        return;
    case NETIO__SIGNAL: netio__signal_leave((netio__signal *)(void *)n); break;
    case NETIO__WATCH:
        if (n->working == NETIO__QUEUED) return;
        netio_poller_remove(n->loop->poller, n->io.socket);
        break;
    case NETIO__TIMER: break;
    default: return; // attempts end with their connection
    }
    netio__node_free(n);
}

NETIO_API int netio_loop_destroy(netio_loop *loop)
{
    netio__node *n;
    if (!loop) return 0;
    if (loop->running) return NETIO_EBUSY;
    loop->running = loop->destroying = true;
    loop->thread = netio__thread_id();
    netio__loop_tick(loop);
    netio__posts_run(loop, true);
    for (int kind = 0; kind < NETIO__KINDS; kind++)
        for (size_t i = 0; (n = netio__slab_at(&loop->slabs[kind], i)) != NULL; i++)
            if (n->gen) netio__node_end(n);
    // Engines may need several steps to let go of what they hold.
    for (int i = 0; i < 1000 && (loop->work || loop->released || loop->active); i++) {
        netio__work_run(loop);
        netio__releases_run(loop);
        if (loop->virtual_clock) netio__ops_of(loop)->wait(loop, loop->now_us);
        else if (loop->network) loop->engines[1]->due(loop);
    }
    while (netio__posts_wait(loop)) netio__posts_run(loop, true);
    netio__names_close(loop);
    netio__ops_of(loop)->leave(loop, false);
    if (loop->network) loop->engines[1]->leave(loop, false);
    netio__loop_free(loop);
    return 0;
}

NETIO_API void netio_loop_destroy_after_fork(netio_loop *loop)
{
    netio__node *n;
    if (!loop) return;
    for (int kind = 0; kind < NETIO__KINDS; kind++) {
        for (size_t i = 0; (n = netio__slab_at(&loop->slabs[kind], i)) != NULL; i++) {
            if (!n->gen) continue;
            if (kind == NETIO__SIGNAL) netio__signal_leave((netio__signal *)(void *)n);
            if (kind == NETIO__CONN) netio__conn_forget(netio__conn_of(n));
            if (kind == NETIO__LISTENER) netio__listener_forget(netio__listener_of(n));
            if (kind == NETIO__UDP) netio__chunks_free(netio__udp_of(n)->out);
            if (kind == NETIO__LOOKUP) NETIO_FREE(((netio__wish *)(void *)n)->answer);
            if (kind < NETIO__WATCH && n->engine == 0 && loop->poller &&
                n->io.socket != NETIO_INVALID_SOCKET)
                netio__os_close(n->io.socket);
        }
    }
    netio__chunks_free(loop->released);
    for (netio__post *p = loop->posts; p;) {
        netio__post *next = p->next;
        NETIO_FREE(p);
        p = next;
    }
    // The resolver's threads stayed in the parent, perhaps inside their lock: their block is lost.
    netio__ops_of(loop)->leave(loop, true);
    if (loop->network) loop->engines[1]->leave(loop, true);
    netio__loop_free(loop);
}
#endif // NETIO__HAS_LOOP

//================================================================================================
// >>helper.c
//================================================================================================

#ifndef NETIO_NO_HELPERS
// Where a sequence or table begins that outsiders must not guess, and that no two share: the
// address tells those apart that begin in the same microsecond.
static uint64_t netio__helper_seed(const void *object)
{
    uint64_t now_us = netio__os_now_us();
    uint64_t h = netio__hash(UINT64_C(0xCBF29CE484222325), &now_us, sizeof now_us);
    return netio__hash(h, &object, sizeof object);
}

// --- backoff -----------------------------------------------------------------------------------

static uint32_t netio__backoff_random(netio_backoff *b) // xorshift: never 0
{
    uint32_t x = b->seed ? b->seed : (uint32_t)(netio__helper_seed(b) >> 32) | 1u;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return b->seed = x;
}

NETIO_API int netio_backoff_next(netio_backoff *b)
{
    if (!b || b->base_ms < 0 || b->cap_ms < 0 || b->tries_max < 0 || b->tries < 0 ||
        b->jitter_pct < -1 || b->jitter_pct > 100)
        return NETIO_EINVAL;
    uint64_t base = b->base_ms ? (uint64_t)b->base_ms : 1000;
    uint64_t cap = b->cap_ms ? (uint64_t)b->cap_ms : 30000;
    uint64_t jitter = b->jitter_pct < 0 ? 0 : b->jitter_pct ? (uint64_t)b->jitter_pct : 20;
    int doublings = b->tries < 31 ? b->tries : 31; // 31 bits moved by 31 fit
    if (b->tries < INT32_MAX) b->tries++;
    if (b->tries_max && b->tries >= b->tries_max) return NETIO_ETIMEDOUT;
    uint64_t pause = base << doublings;
    if (pause > cap) pause = cap;
    // The range is cut, not the result: else half of the clients of a server that went down would
    // come back at the same moment, after exactly `cap`.
    uint64_t low = pause - pause * jitter / 100, high = pause + pause * jitter / 100;
    if (high > cap) high = cap;
    return (int)(low + netio__backoff_random(b) % (high - low + 1));
}

// --- bucket ------------------------------------------------------------------------------------

NETIO_API int netio_bucket_take(netio_bucket *b, double n, uint64_t now_ms)
{
    if (!b || !(b->rate > 0) || !(b->burst >= 0)) return NETIO_EINVAL; // written so for a NaN
    double burst = b->burst > 0 ? b->burst : b->rate > 1 ? b->rate : 1;
    uint64_t at_ms = now_ms + 1; // 0 is the mark of a fresh one, and a test's clock may begin there
    if (!(n >= 0 && n <= burst)) return NETIO_EINVAL;
    if (b->at_ms == 0) b->tokens = burst;
    else if (at_ms > b->at_ms) b->tokens += b->rate * (double)(at_ms - b->at_ms) / 1000;
    if (b->tokens > burst) b->tokens = burst;
    if (at_ms > b->at_ms) b->at_ms = at_ms;
    double missing = n - b->tokens - b->rate * 1e-9; // a nanosecond's worth is lost in rounding
    if (missing <= 0) {
        b->tokens -= n;
        return 0;
    }
    double wait_ms = missing * 1000 / b->rate;
    if (wait_ms >= INT32_MAX) return INT32_MAX;
    return (int)wait_ms + ((double)(int)wait_ms < wait_ms); // rounded up
}

// --- window ------------------------------------------------------------------------------------
//
// Exact, not an estimate: each host has a ring with the times of its last `per_host`. If it is full
// and the oldest lies in the window, one more is too many. The table is a hash of chains; a list
// keeps the order in which hosts were last seen, also if they were refused, so that an attacker's
// own noise does not let netio forget him.

typedef struct netio__window_host {
    uint64_t key;
    uint32_t next;         // in its chain; 0: the last
    uint32_t newer, older; // who was seen after and before
    uint32_t count, first; // times in its ring, and the oldest of them
} netio__window_host;

struct netio_window { // one block of memory; the arrays follow
    uint64_t now_ms, seed, window_ms;
    uint64_t *times;           // the rings
    netio__window_host *hosts; // from 1 on; [0] joins the ends: its `newer` is quiet longest
    uint32_t *chains;
    uint32_t mask, per_host, hosts_max, count;
};

NETIO_API int netio_window_create(netio_window **out, size_t per_host, int window_ms,
                                  size_t hosts_max)
{
    uint32_t chains = 1;
    if (per_host == 0) per_host = 10;
    if (hosts_max == 0) hosts_max = 4096;
    if (!out || window_ms < 0 || per_host > 1u << 20 || hosts_max > 1u << 24) return NETIO_EINVAL;
    while (chains < hosts_max) chains *= 2;
    uint64_t times = (uint64_t)hosts_max * per_host * sizeof(uint64_t);
    uint64_t hosts = (uint64_t)(hosts_max + 1) * sizeof(netio__window_host);
    uint64_t size = sizeof(netio_window) + times + hosts + chains * sizeof(uint32_t);
    netio_window *w = size <= SIZE_MAX / 2 ? (netio_window *)NETIO_MALLOC((size_t)size) : NULL;
    if (!w) return NETIO_ENOMEM;
    memset(w, 0, sizeof *w);
    w->seed = netio__helper_seed(w);
    w->window_ms = window_ms ? (uint64_t)window_ms : 60000;
    w->times = (uint64_t *)(void *)(w + 1);
    w->hosts = (netio__window_host *)(void *)(w->times + hosts_max * per_host);
    w->chains = (uint32_t *)(void *)(w->hosts + hosts_max + 1);
    w->mask = chains - 1;
    w->per_host = (uint32_t)per_host;
    w->hosts_max = (uint32_t)hosts_max;
    memset(w->hosts, 0, sizeof *w->hosts);
    memset(w->chains, 0, chains * sizeof *w->chains);
    *out = w;
    return 0;
}

NETIO_API void netio_window_destroy(netio_window *w) { NETIO_FREE(w); }

// 64 bits for either family: no host has an address of ffff::/16, which is multicast.
static uint64_t netio__window_key(netio__ip ip)
{
    uint64_t key = 0;
    netio__ip_unmap(&ip);
    for (int i = 0; i < (ip.family == NETIO_IPV4 ? 4 : 8); i++) key = key << 8 | ip.bytes[i];
    return ip.family == NETIO_IPV4 ? key | UINT64_C(0xFFFF000000000000) : key;
}

static uint32_t *netio__window_chain(netio_window *w, uint64_t key)
{
    uint64_t h = netio__hash(w->seed, &key, sizeof key);
    return &w->chains[(uint32_t)(h ^ h >> 32) & w->mask];
}

static void netio__window_unlink(netio_window *w, uint32_t i)
{
    netio__window_host *h = &w->hosts[i];
    w->hosts[h->newer].older = h->older;
    w->hosts[h->older].newer = h->newer;
}

// A place for a host that is not in the table: a new one, or that of who is quiet longest.
static uint32_t netio__window_add(netio_window *w, uint64_t key)
{
    uint32_t i = w->count < w->hosts_max ? ++w->count : w->hosts[0].newer;
    netio__window_host *h = &w->hosts[i];
    if (i == w->hosts[0].newer) {
        uint32_t *link = netio__window_chain(w, h->key);
        while (*link != i) link = &w->hosts[*link].next;
        *link = h->next;
        netio__window_unlink(w, i);
    }
    uint32_t *chain = netio__window_chain(w, key);
    h->key = key;
    h->next = *chain;
    h->count = h->first = 0;
    *chain = i;
    return i;
}

// The host's place, as the one that was seen last.
static uint32_t netio__window_touch(netio_window *w, uint64_t key)
{
    uint32_t i = *netio__window_chain(w, key);
    while (i && w->hosts[i].key != key) i = w->hosts[i].next;
    if (i) netio__window_unlink(w, i);
    else i = netio__window_add(w, key);
    netio__window_host *h = &w->hosts[i], *ends = w->hosts;
    h->newer = 0;
    h->older = ends->older;
    w->hosts[h->older].newer = i;
    ends->older = i;
    return i;
}

NETIO_API int netio_window_take(netio_window *w, const netio_addr *host, uint64_t now_ms)
{
    netio__ip ip;
    if (!w || !host || !netio__addr_get_ip(&ip, host)) return NETIO_EINVAL;
    if (now_ms > w->now_ms) w->now_ms = now_ms;
    uint32_t i = netio__window_touch(w, netio__window_key(ip));
    netio__window_host *h = &w->hosts[i];
    uint64_t *ring = w->times + (size_t)(i - 1) * w->per_host;
    if (h->count < w->per_host) {
        ring[h->count++] = w->now_ms;
        return 0;
    }
    if (w->now_ms - ring[h->first] < w->window_ms) return NETIO_EBUSY;
    ring[h->first] = w->now_ms;
    h->first = (h->first + 1) % w->per_host;
    return 0;
}

// --- heartbeat ---------------------------------------------------------------------------------

enum { NETIO__HEARTBEAT_NEW, NETIO__HEARTBEAT_QUIET, NETIO__HEARTBEAT_ASKED };

static bool netio__heartbeat_past(uint64_t from_ms, int span_ms, uint64_t now_ms)
{
    return now_ms > from_ms && now_ms - from_ms >= (uint64_t)span_ms;
}

NETIO_API void netio_heartbeat_seen(netio_heartbeat *h, uint64_t now_ms)
{
    if (h->state == NETIO__HEARTBEAT_NEW || now_ms > h->last_ms) h->last_ms = now_ms;
    h->state = NETIO__HEARTBEAT_QUIET;
}

NETIO_API int netio_heartbeat_tick(netio_heartbeat *h, uint64_t now_ms)
{
    if (!h || h->interval_ms <= 0 || h->limit_ms <= 0) return NETIO_EINVAL;
    if (h->state == NETIO__HEARTBEAT_NEW) netio_heartbeat_seen(h, now_ms);
    if (h->state == NETIO__HEARTBEAT_ASKED &&
        netio__heartbeat_past(h->asked_ms, h->limit_ms, now_ms))
        return NETIO_HEARTBEAT_DEAD;
    if (!netio__heartbeat_past(h->last_ms, h->interval_ms, now_ms)) return 0;
    if (h->state == NETIO__HEARTBEAT_QUIET) h->asked_ms = now_ms;
    h->state = NETIO__HEARTBEAT_ASKED;
    h->last_ms = now_ms;
    return NETIO_HEARTBEAT_PING;
}

// --- pool --------------------------------------------------------------------------------------

#if NETIO__HAS_THREADS
typedef struct netio__pool_idle {
    void *item;
    uint64_t since_ms;
} netio__pool_idle;

// Whoever works on the pool holds its lock, or counts in `opened` or `waiting`: so the last to
// leave a destroyed pool is known.
struct netio_pool {
    netio_pool_opts o;
    netio__os_mutex lock;
    netio__os_cond freed;   // an item came back, or there is room for one more
    netio__pool_idle *idle; // room for o.max; the one that came back last stands last
    size_t count;           // of `idle`
    size_t opened;          // idle, in use, being opened or closed
    size_t waiting;         // threads
    bool destroyed;
};

NETIO_API int netio_pool_create(netio_pool **out, const netio_pool_opts *opts)
{
    if (!out || !opts || !opts->open || !opts->close || opts->check_ms < -1 || opts->idle_ms < 0)
        return NETIO_EINVAL;
    size_t max = opts->max ? opts->max : 10;
    int err = NETIO_ENOMEM;
    netio_pool *p = (netio_pool *)NETIO_MALLOC(sizeof *p);
    if (!p) return NETIO_ENOMEM;
    memset(p, 0, sizeof *p);
    p->o = *opts;
    p->o.max = max;
    if (max <= SIZE_MAX / sizeof *p->idle)
        p->idle = (netio__pool_idle *)NETIO_MALLOC(max * sizeof *p->idle);
    if (p->idle) err = netio__os_sync_open(&p->lock, &p->freed);
    if (err < 0) {
        NETIO_FREE(p->idle);
        NETIO_FREE(p);
        return err;
    }
    *out = p;
    return 0;
}

// Leaves the lock, and frees a destroyed pool that nobody works on any more.
static void netio__pool_leave(netio_pool *p)
{
    bool last = p->destroyed && p->opened == 0 && p->waiting == 0;
    netio__os_unlock(&p->lock);
    if (!last) return;
    netio__os_sync_close(&p->lock, &p->freed);
    NETIO_FREE(p->idle);
    NETIO_FREE(p);
}

static void netio__pool_close(netio_pool *p, void *item)
{
    netio__os_unlock(&p->lock);
    p->o.close(p->o.user, item);
    netio__os_lock(&p->lock);
    p->opened--;
    netio__os_notify(&p->freed);
}

// Closes what was idle for too long; all of it, if the pool is destroyed.
static void netio__pool_expire(netio_pool *p)
{
    while (p->count && (p->destroyed || p->o.idle_ms)) {
        netio__pool_idle first = p->idle[0];
        // The clock is read each time: closing takes some, and others release meanwhile.
        if (!p->destroyed && netio_now_ms() - first.since_ms < (uint64_t)p->o.idle_ms) return;
        memmove(p->idle, p->idle + 1, --p->count * sizeof *p->idle);
        netio__pool_close(p, first.item);
    }
}

static bool netio__pool_good(netio_pool *p, const netio__pool_idle *got)
{
    if (!p->o.check) return true;
    uint64_t check_ms = p->o.check_ms ? (uint64_t)p->o.check_ms : 10000;
    if (p->o.check_ms >= 0 && netio_now_ms() - got->since_ms < check_ms) return true;
    netio__os_unlock(&p->lock);
    bool good = p->o.check(p->o.user, got->item);
    netio__os_lock(&p->lock);
    return good;
}

static int netio__pool_open(netio_pool *p, void **item, int timeout_ms)
{
    void *made = NULL;
    p->opened++;
    netio__os_unlock(&p->lock);
    int err = p->o.open(p->o.user, &made, timeout_ms);
    netio__os_lock(&p->lock);
    if (err < 0) p->opened--;
    else *item = made;
    return err < 0 ? err : 0;
}

// One step of acquire. Returns 1: look again.
static int netio__pool_step(netio_pool *p, void **item, netio__patience *t)
{
    if (p->destroyed) return NETIO_ECANCELED;
    if (p->count) {
        netio__pool_idle got = p->idle[--p->count];
        if (netio__pool_good(p, &got)) {
            *item = got.item;
            return 0;
        }
        netio__pool_close(p, got.item);
        return 1;
    }
    int left = netio__patience_left(t);
    if (left == 0 && t->timeout_ms > 0) return NETIO_ETIMEDOUT;
    if (p->opened < p->o.max) return netio__pool_open(p, item, left);
    if (left == 0) return NETIO_EBUSY;
    p->waiting++;
    netio__os_wait_notify(&p->lock, &p->freed, left < 0 ? 60000 : left);
    p->waiting--;
    return 1;
}

NETIO_API int netio_pool_acquire(netio_pool *p, void **item, int timeout_ms)
{
    netio__patience t = netio__patient(timeout_ms);
    int err = 1;
    if (!p || !item) return NETIO_EINVAL;
    netio__patience_left(&t); // the time begins now
    netio__os_lock(&p->lock);
    netio__pool_expire(p);
    while (err == 1) err = netio__pool_step(p, item, &t);
    if (err < 0) netio__os_notify(&p->freed); // whom this thread was woken for instead
    netio__pool_leave(p);
    return err;
}

NETIO_API void netio_pool_release(netio_pool *p, void *item, bool broken)
{
    if (!p) return;
    netio__os_lock(&p->lock);
    NETIO_ASSERT(p->count < p->opened); // else more is given back than was taken
    if (broken) netio__pool_close(p, item);
    else if (p->count < p->opened) {
        p->idle[p->count].item = item;
        p->idle[p->count++].since_ms = netio_now_ms();
        netio__os_notify(&p->freed);
    }
    netio__pool_expire(p); // of a destroyed pool: this one, too
    netio__pool_leave(p);
}

NETIO_API void netio_pool_destroy(netio_pool *p)
{
    if (!p) return;
    netio__os_lock(&p->lock);
    p->destroyed = true;
    netio__os_notify(&p->freed); // one who waits, who wakes the next
    netio__pool_expire(p);
    netio__pool_leave(p);
}
#endif // NETIO__HAS_THREADS

// --- the rest ----------------------------------------------------------------------------------

// Whether a server that is about to start, or a network that is about to come up, looks so.
static bool netio__not_yet(int err, const char *address)
{
    switch (err) {
    case NETIO_ETIMEDOUT:
    case NETIO_EAI_AGAIN:
    case NETIO_ECONNREFUSED:
    case NETIO_ECONNRESET:
    case NETIO_ECONNABORTED:
    case NETIO_EADDRNOTAVAIL:
    case NETIO_EHOSTUNREACH:
    case NETIO_ENETUNREACH:
    case NETIO_ENETDOWN: return true;
    case NETIO_ENOENT: return strncmp(address, "unix:", 5) == 0; // else there is no such service
    default: return false;
    }
}

NETIO_API int netio_wait_listening(const char *address, int timeout_ms)
{
    netio__patience p = netio__patient(timeout_ms);
    netio_backoff pauses;
    memset(&pauses, 0, sizeof pauses);
    pauses.base_ms = 10;
    pauses.cap_ms = 250;
    pauses.jitter_pct = -1;
    for (;;) {
        netio_socket s;
        int left = netio__patience_left(&p);
        if (left == 0 && timeout_ms > 0) return NETIO_ETIMEDOUT;
        int err = netio_connect(&s, address, NULL, left);
        if (err == 0) return netio_close(&s);
        if (timeout_ms == 0 || !netio__not_yet(err, address)) return err;
        int64_t again =
            netio_deadline(netio__sooner(netio__patience_left(&p), netio_backoff_next(&pauses)));
        // A signal ends a wait early, and many would make a storm of attempts.
        while ((left = netio_deadline_left(again)) > 0) netio__os_wait(NULL, 0, left);
    }
}

// Returns `len`; less is an error. `*done` grows by what the file took.
static ptrdiff_t netio__write_file(netio_file file, const char *data, size_t len, uint64_t off,
                                   uint64_t *done)
{
    for (size_t at = 0; at < len;) {
        ptrdiff_t n = netio__os_write_file(file, data + at, len - at, off + *done);
        if (n <= 0) return n < 0 ? n : (ptrdiff_t)NETIO_EIO;
        at += (size_t)n;
        *done += (uint64_t)n;
    }
    return (ptrdiff_t)len;
}

NETIO_API int netio_recvfile(netio_socket s, netio_file file, uint64_t off, uint64_t len,
                             uint64_t *done, int timeout_ms)
{
    char buf[16384];
    int64_t by = timeout_ms > 0 ? netio_deadline(timeout_ms) : 0;
    uint64_t got = 0;
    ptrdiff_t r = netio__socket_type(s);
    if (r >= 0 && r != SOCK_STREAM) r = NETIO_EINVAL;
    if (off > INT64_MAX || (len != UINT64_MAX && len > INT64_MAX - off)) r = NETIO_EINVAL;
    while (r >= 0 && got < len) {
        size_t want = len - got < sizeof buf ? (size_t)(len - got) : sizeof buf;
        int left = timeout_ms > 0 && got ? netio_deadline_left(by) : timeout_ms;
        r = netio_recv(s, buf, want, left);
        if (r > 0) r = netio__write_file(file, buf, (size_t)r, off, &got);
        // One try past the deadline, as in netio_recv_exact.
        if (timeout_ms > 0 && left == 0 && (r == NETIO_EAGAIN || (r > 0 && got < len)))
            r = NETIO_ETIMEDOUT;
    }
    if (done) *done = got;
    if (r == NETIO_EOF && (got || len == UINT64_MAX))
        return len == UINT64_MAX ? 0 : (int)NETIO_ETRUNCATED;
    return r < 0 ? (int)r : 0;
}

NETIO_API uint16_t netio_checksum_inet(const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    uint64_t sum = 0;
    if (!p) len = 0;
    for (; len > 1; len -= 2, p += 2) sum += (uint64_t)p[0] << 8 | p[1];
    if (len) sum += (uint64_t)p[0] << 8;
    while (sum >> 16) sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)~sum;
}

static size_t netio__hexdump_line(char *buf, size_t cap, size_t at, const uint8_t *p, size_t off,
                                  size_t n)
{
    static const char hex[] = "0123456789abcdef";
    int digits = 4;
    while (digits < (int)(2 * sizeof off) && off >> 4 * digits) digits++;
    while (digits-- > 0) at = netio__text(buf, cap, at, &hex[off >> 4 * digits & 15], 1);
    at = netio__text(buf, cap, at, " ", 1);
    for (size_t i = 0; i < 16; i++) {
        at = netio__text(buf, cap, at, " ", 1);
        at = netio__text(buf, cap, at, i < n ? &hex[p[i] >> 4] : " ", 1);
        at = netio__text(buf, cap, at, i < n ? &hex[p[i] & 15] : " ", 1);
    }
    at = netio__text(buf, cap, at, "  ", 2);
    for (size_t i = 0; i < n; i++) {
        char c = p[i] >= 0x20 && p[i] <= 0x7E ? (char)p[i] : '.';
        at = netio__text(buf, cap, at, &c, 1);
    }
    return netio__text(buf, cap, at, "\n", 1);
}

NETIO_API ptrdiff_t netio_hexdump(char *buf, size_t cap, const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    size_t at = 0;
    if ((!buf && cap) || (!p && len)) return NETIO_EINVAL;
    if (cap) buf[0] = 0;
    for (size_t off = 0; off < len; off += 16)
        at = netio__hexdump_line(buf, cap, at, p + off, off, len - off < 16 ? len - off : 16);
    return at < cap ? (ptrdiff_t)at : (ptrdiff_t)NETIO_ENOSPC;
}

// Bytes of the UTF-8 character at `p` (RFC 3629); 0: it is none. One that the end cuts counts.
static size_t netio__utf8_char(const uint8_t *p, size_t len)
{
    uint8_t low = 0x80,
            high = 0xBF; // of the second byte: no longer form than needed, no surrogates
    size_t n = p[0] < 0x80   ? 1
               : p[0] < 0xC2 ? 0
               : p[0] < 0xE0 ? 2
               : p[0] < 0xF0 ? 3
               : p[0] < 0xF5 ? 4
                             : 0;
    if (p[0] == 0xE0) low = 0xA0;
    if (p[0] == 0xED) high = 0x9F;
    if (p[0] == 0xF0) low = 0x90;
    if (p[0] == 0xF4) high = 0x8F;
    for (size_t i = 1; i < n && i < len; i++, low = 0x80, high = 0xBF)
        if (p[i] < low || p[i] > high) return 0;
    return n < len ? n : n ? len : 0;
}

NETIO_API bool netio_looks_like_text(const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    if (!p || len == 0) return false;
    for (size_t at = 0; at < len;) {
        size_t n = netio__utf8_char(p + at, len - at);
        if (n == 0 || p[at] == 0x7F) return false;
        if (p[at] < 0x20 && p[at] != '\t' && p[at] != '\n' && p[at] != '\r') return false;
        at += n;
    }
    return true;
}
#endif // NETIO_NO_HELPERS

#ifdef __cplusplus
}
#endif
#ifdef _MSC_VER
#pragma warning(pop)
#endif
#endif // NETIO__STOP
#endif // NETIO_IMPLEMENTATION

// Choose one: MIT licence, or public domain (unlicense.org). Both stand in the file LICENSE.
