#!/bin/sh
# Every NETIO_NO_ switch, alone and together: it compiles without a warning, links and runs; a call
# that was left out is an error of the compiler, not a surprise at run time; and what it used of the
# system is gone from the object.
#
#     switches.sh C-COMPILER C++-COMPILER
. "$(dirname "$0")/kit.sh"
cc=$1 cxx=$2
need "$cc"
use_kit "$cc" "$cxx"
tls_of $lint
windows=""
if command -v x86_64-w64-mingw32-gcc >/dev/null 2>&1; then
    windows="x86_64-w64-mingw32-gcc -fsyntax-only"
    if command -v clang >/dev/null 2>&1; then
        windows="clang --target=x86_64-w64-mingw32 -fsyntax-only"
    fi
fi

cat >"$work/main.c" <<'C'
#define NETIO_IMPLEMENTATION
#include "netio.h"
#include <stdio.h>
#include <string.h>

#ifndef NETIO_NO_POLLER
static int check_backend(int backend, bool removed)
{
    netio_poller *p;
    int err;
    if (netio_backend_available(backend) && removed) return printf("%d is there\n", backend);
    err = netio_poller_open(&p, backend);
    if (removed && err != NETIO_ENOTSUP) return printf("open: %s\n", netio_errname(err));
    if (err == 0) netio_poller_close(p);
    return 0;
}
#endif

#ifndef NETIO_NO_LOOP
static int closed;

static void back(netio_conn c, const void *data, size_t len)
{
    netio_conn_write(c, data, len);
}

static void got(netio_conn c, const void *data, size_t len)
{
    if (len == 1 && *(const char *)data == 'x') netio_conn_close(c);
}

static void over(netio_conn c, int err)
{
    (void)c;
    if (err == 0) closed++;
}

// An echo over the loopback, by an address without a name and so without a thread.
static int check_loop(void)
{
    netio_handler server, client;
    netio_listener l;
    netio_loop *loop;
    netio_addr addr;
    netio_conn c;
    char text[NETIO_ADDR_TEXT];
    memset(&server, 0, sizeof server);
    server.on_data = back;
    server.on_close = over;
    client = server;
    client.on_data = got;
    if (netio_loop_create(&loop, NULL) < 0) return printf("create\n");
    if (netio_listener_open(&l, loop, "127.0.0.1:0", &server, NULL) < 0) return printf("listen\n");
    if (netio_listener_addr(l, &addr) < 0) return printf("where\n");
    if (netio_addr_format(&addr, text, sizeof text) < 0) return printf("text\n");
    if (netio_conn_dial(&c, loop, text, &client, NULL) < 0) return printf("dial\n");
    if (netio_conn_write(c, "x", 1) < 0) return printf("write\n");
    for (int i = 0; i < 1000 && closed < 2; i++) netio_loop_run_once(loop, 10);
    if (netio_loop_destroy(loop) < 0) return printf("destroy\n");
    return closed == 2 ? 0 : printf("%d of 2 closed\n", closed);
}
#endif

#ifndef NETIO_NO_FRAME
// What a codec that was left out says: its framing is gone, its number is NETIO_ENOTSUP.
static int check_format(int format, bool removed)
{
    netio_framing f;
    netio_decoder d;
    int err;
    memset(&f, 0, sizeof f);
    f.format = format;
    f.max = 100;
    f.width = 2;
    f.header = 2;
    f.delimiter_len = 1;
    err = netio_decoder_init(&d, f, NULL, 0);
    if (err == 0) netio_decoder_free(&d);
    if ((err == NETIO_ENOTSUP) == removed) return 0;
    return printf("format %d: %s\n", format, netio_errname(err));
}

#ifdef NETIO_NO_LINE
#define NO_LINE true
#else
#define NO_LINE false
#endif
#ifdef NETIO_NO_DELIMITER
#define NO_DELIMITER true
#else
#define NO_DELIMITER false
#endif
#ifdef NETIO_NO_FIXED
#define NO_FIXED true
#else
#define NO_FIXED false
#endif
#ifdef NETIO_NO_LENGTH
#define NO_LENGTH true
#else
#define NO_LENGTH false
#endif
#ifdef NETIO_NO_VARINT
#define NO_VARINT true
#else
#define NO_VARINT false
#endif
#ifdef NETIO_NO_NETSTRING
#define NO_NETSTRING true
#else
#define NO_NETSTRING false
#endif
#ifdef NETIO_NO_CHUNKED
#define NO_CHUNKED true
#else
#define NO_CHUNKED false
#endif
#ifdef NETIO_NO_COBS
#define NO_COBS true
#else
#define NO_COBS false
#endif
#ifdef NETIO_NO_SLIP
#define NO_SLIP true
#else
#define NO_SLIP false
#endif
#ifdef NETIO_NO_WEBSOCKET
#define NO_WEBSOCKET true
#else
#define NO_WEBSOCKET false
#endif
#ifdef NETIO_NO_HTTP
#define NO_HTTP true
#else
#define NO_HTTP false
#endif

static int check_formats(void)
{
    return check_format(NETIO_FORMAT_LINE, NO_LINE) ||
           check_format(NETIO_FORMAT_DELIMITER, NO_DELIMITER) ||
           check_format(NETIO_FORMAT_FIXED, NO_FIXED) ||
           check_format(NETIO_FORMAT_LENGTH, NO_LENGTH) ||
           check_format(NETIO_FORMAT_VARINT, NO_VARINT) ||
           check_format(NETIO_FORMAT_NETSTRING, NO_NETSTRING) ||
           check_format(NETIO_FORMAT_CHUNKED, NO_CHUNKED) ||
           check_format(NETIO_FORMAT_COBS, NO_COBS) ||
           check_format(NETIO_FORMAT_SLIP, NO_SLIP) ||
           check_format(NETIO_FORMAT_WEBSOCKET, NO_WEBSOCKET) ||
           check_format(NETIO_FORMAT_HTTP_HEAD, NO_HTTP) ||
           check_format(NETIO_FORMAT_RAW, false);
}
#endif

int main(void)
{
    netio_addr a;
    netio_socket pair[2];
    char byte = 'x';
    if (netio_addr_parse(&a, "127.0.0.1:80", 12) != 0) return 1;
    if (netio_pair(pair, NETIO_STREAM) != 0) return 2;
    if (netio_send(pair[0], &byte, 1, 1000) != 1) return 3;
    if (netio_recv(pair[1], &byte, 1, 1000) != 1) return 4;
    netio_close(&pair[0]);
    netio_close(&pair[1]);
#ifdef NETIO_NO_UNIX
    if (netio_addr_parse(&a, "unix:/x", 7) != NETIO_ENOTSUP) return 5;
#endif
#ifdef NETIO_NO_THREADS
    if (netio_resolve("localhost:80", &a, 1, NULL, 1000) != NETIO_ENOTSUP) return 6;
#endif
#ifndef NETIO_NO_POLLER
#ifdef NETIO_NO_SELECT
    if (check_backend(NETIO_BACKEND_SELECT, true)) return 7;
#endif
#ifdef NETIO_NO_POLL
    if (check_backend(NETIO_BACKEND_POLL, true)) return 8;
#endif
#ifdef NETIO_NO_EPOLL
    if (check_backend(NETIO_BACKEND_EPOLL, true)) return 9;
#endif
#ifdef NETIO_NO_KQUEUE
    if (check_backend(NETIO_BACKEND_KQUEUE, true)) return 10;
#endif
#ifdef NETIO_NO_WSAPOLL
    if (check_backend(NETIO_BACKEND_WSAPOLL, true)) return 11;
#endif
#ifdef NETIO_NO_AFD
    if (check_backend(NETIO_BACKEND_AFD, true)) return 12;
#endif
    if (check_backend(NETIO_BACKEND_AUTO, false)) return 13;
#endif
#ifndef NETIO_NO_FRAME
    if (check_formats()) return 14;
#endif
#ifndef NETIO_NO_LOOP
    if (check_loop()) return 15;
#endif
    return 0;
}
C

backends="-DNETIO_NO_SELECT -DNETIO_NO_POLL -DNETIO_NO_EPOLL -DNETIO_NO_KQUEUE -DNETIO_NO_WSAPOLL"
backends="$backends -DNETIO_NO_AFD"
all="-DNETIO_NO_UNIX -DNETIO_NO_THREADS -DNETIO_NO_POLLER -DNETIO_NO_FRAME -DNETIO_NO_HELPERS"
plain="-DNETIO_NO_LINE -DNETIO_NO_DELIMITER -DNETIO_NO_FIXED -DNETIO_NO_LENGTH -DNETIO_NO_VARINT"
plain="$plain -DNETIO_NO_NETSTRING -DNETIO_NO_COBS -DNETIO_NO_SLIP"
web="-DNETIO_NO_HTTP -DNETIO_NO_CHUNKED -DNETIO_NO_WEBSOCKET -DNETIO_NO_PROXY -DNETIO_NO_SOCKS"
lint()
{
    $lint -std=c99 $warnings -I"$root" "$@"
}
runs() # without warnings: those were looked at before
{
    $quick -w "$@" -I"$root" "$work/main.c" -o "$work/a" -lpthread && "$work/a"
}
while read -r what flags; do
    eval "flags=\"$flags\""
    try "$what: C99" lint $flags "$work/main.c"
    try "$what: runs" runs $flags
    try "$what: with TLS" lint $flags $tls -DNETIO_IMPLEMENTATION "$here/tls.c"
    [ -z "$windows" ] || try "$what: Windows, no TLS library" $windows -std=c99 $warnings $flags \
        -I"$root" -DNETIO_TLS_NONE -DNETIO_IMPLEMENTATION "$here/tls.c"
    case $what in
    nothing | all-and-backends)
        try "$what: static, unused" lint $flags -DNETIO_STATIC -DNETIO_IMPLEMENTATION "$here/header.c"
        try "$what: static, unused, with TLS" lint $flags $tls -DNETIO_STATIC \
            -DNETIO_IMPLEMENTATION "$here/tls.c"
        command -v "$cxx" >/dev/null 2>&1 || continue
        try "$what: C++11" $lintxx -std=c++11 $warnings $flags -I"$root" "$work/main.c"
        ;;
    esac
done <<'T'
nothing
unix -DNETIO_NO_UNIX
threads -DNETIO_NO_THREADS
poller -DNETIO_NO_POLLER
loop -DNETIO_NO_LOOP
frame -DNETIO_NO_FRAME
stream -DNETIO_NO_STREAM
helpers -DNETIO_NO_HELPERS
debug -DNETIO_DEBUG=1
all-codecs $plain $web
loop-alone -DNETIO_NO_UNIX -DNETIO_NO_THREADS -DNETIO_NO_STREAM -DNETIO_NO_HELPERS $plain $web
frame-alone -DNETIO_NO_LOOP -DNETIO_NO_HELPERS -DNETIO_NO_STREAM
sockets-and-pollers -DNETIO_NO_LOOP -DNETIO_NO_FRAME -DNETIO_NO_HELPERS
only-select -DNETIO_NO_POLL -DNETIO_NO_EPOLL -DNETIO_NO_KQUEUE -DNETIO_NO_WSAPOLL -DNETIO_NO_AFD
only-poll -DNETIO_NO_SELECT -DNETIO_NO_EPOLL -DNETIO_NO_KQUEUE
all $all
all-and-backends $all $backends
T

# One backend or codec less: the others saw them together above.
for one in SELECT POLL EPOLL KQUEUE LINE DELIMITER FIXED LENGTH VARINT NETSTRING COBS SLIP HTTP \
    CHUNKED WEBSOCKET PROXY SOCKS; do
    try "$one: C99" lint -DNETIO_NO_$one "$work/main.c"
    try "$one: runs" runs -DNETIO_NO_$one
done
if [ -n "$windows" ]; then
    for one in SELECT WSAPOLL AFD; do
        try "$one: Windows" $windows -std=c99 $warnings -DNETIO_NO_$one -I"$root" "$work/main.c"
    done
fi

# A poller without any backend makes no sense.
deny "no backend" "$cc" $backends -I"$root" -fsyntax-only "$work/main.c"
try "no backend: netio.h says so" grep -q 'netio\.h:.*error: .*NETIO_NO_POLLER' "$work/errors"
try "no backend: and nothing else" [ "$(grep -c 'error:' "$work/errors")" = 1 ]

while read -r switch call; do
    printf '#include "netio_tls.h"\nint main(void) { %s; return 0; }\n' "$call" >"$work/use.c"
    try "$switch: $call without it" "$cc" -I"$root" -c "$work/use.c" -o "$work/o"
    deny "$switch: $call" "$cc" -Werror=implicit-function-declaration -D$switch -I"$root" \
        -c "$work/use.c" -o "$work/o"
done <<'T'
NETIO_NO_UNIX netio_unix_unlink(0)
NETIO_NO_POLLER netio_poller_open(0, 0)
NETIO_NO_POLLER netio_poller_wake(0)
NETIO_NO_POLLER netio_backend_name(0)
NETIO_NO_POLLER netio_loop_run(0)
NETIO_NO_LOOP netio_loop_run(0)
NETIO_NO_LOOP netio_network_destroy(0)
NETIO_NO_FRAME netio_decoder_end(0)
NETIO_NO_FRAME netio_loop_run(0)
NETIO_NO_FRAME netio_framing_chunked(0)
NETIO_NO_STREAM netio_stream_close(0)
NETIO_NO_HELPERS netio_looks_like_text(0,0)
NETIO_NO_LINE netio_framing_line(0)
NETIO_NO_DELIMITER netio_framing_delimiter("",1,0)
NETIO_NO_FIXED netio_framing_fixed(1)
NETIO_NO_LENGTH netio_framing_length(2,0)
NETIO_NO_VARINT netio_framing_varint(0)
NETIO_NO_NETSTRING netio_framing_netstring(0)
NETIO_NO_COBS netio_framing_cobs(0)
NETIO_NO_SLIP netio_framing_slip(0)
NETIO_NO_HTTP netio_http_parse(0,0,0)
NETIO_NO_CHUNKED netio_framing_chunked(0)
NETIO_NO_WEBSOCKET netio_framing_websocket(0,0)
NETIO_NO_LOOP netio_tls_filter(0)
NETIO_NO_POLLER netio_tls_filter(0)
NETIO_NO_STREAM netio_tls_connect(0,0,0,0,0,0)
NETIO_NO_FRAME netio_tls_stream_engine(0)
T

if command -v nm >/dev/null 2>&1; then
    while read -r switch symbols; do
        $quick -w -D$switch -DNETIO_TLS_NONE -DNETIO_IMPLEMENTATION -I"$root" -c "$here/tls.c" \
            -o "$work/o"
        try "$switch: nothing of $symbols is used" sh -c "! nm -u '$work/o' | grep -E ' ($symbols)'"
    done <<'T'
NETIO_NO_THREADS pthread_create|CreateThread
NETIO_NO_LOOP sigaction|splice
NETIO_NO_POLLER eventfd|epoll_|kqueue|kevent
NETIO_NO_EPOLL epoll_
NETIO_NO_KQUEUE kqueue|kevent
NETIO_TLS_NONE SSL_|X509_|EVP_|ERR_|fopen
T
fi
finish
