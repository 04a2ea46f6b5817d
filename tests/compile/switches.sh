#!/bin/sh
# Every NETIO_NO_ switch, alone and together: it compiles without a warning, links and runs; a call
# that was left out is an error of the compiler, not a surprise at run time; and what it used of the
# system is gone from the object.
#
#     switches.sh C-COMPILER C++-COMPILER
. "$(dirname "$0")/../tools/check.sh"
cc=$1 cxx=$2
need "$cc"

cat >"$work/main.c" <<'C'
#define NETIO_IMPLEMENTATION
#include "netio.h"
#include <stdio.h>

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
    return 0;
}
C
cp "$work/main.c" "$work/main.cpp"

backends="-DNETIO_NO_SELECT -DNETIO_NO_POLL -DNETIO_NO_EPOLL -DNETIO_NO_KQUEUE -DNETIO_NO_WSAPOLL"
backends="$backends -DNETIO_NO_AFD"
all="-DNETIO_NO_UNIX -DNETIO_NO_THREADS -DNETIO_NO_POLLER"
while read -r what flags; do
    eval "flags=\"$flags\""
    try "$what: C99" "$cc" -std=c99 $warnings $flags -I"$root" "$work/main.c" -o "$work/a" -pthread
    try "$what: runs" "$work/a"
    try "$what: static, unused" "$cc" -std=c99 $warnings $flags -DNETIO_STATIC -fsyntax-only \
        -DNETIO_IMPLEMENTATION -I"$root" "$root/tests/compile/header.c"
    if command -v "$cxx" >/dev/null 2>&1; then
        try "$what: C++11" "$cxx" -std=c++11 $warnings $flags -I"$root" "$work/main.cpp" \
            -fsyntax-only
    fi
    if command -v x86_64-w64-mingw32-gcc >/dev/null 2>&1; then
        try "$what: Windows" x86_64-w64-mingw32-gcc -std=c99 $warnings $flags -I"$root" \
            -fsyntax-only "$work/main.c"
    fi
done <<'T'
nothing
unix -DNETIO_NO_UNIX
threads -DNETIO_NO_THREADS
poller -DNETIO_NO_POLLER
select -DNETIO_NO_SELECT
poll -DNETIO_NO_POLL
epoll -DNETIO_NO_EPOLL
kqueue -DNETIO_NO_KQUEUE
wsapoll -DNETIO_NO_WSAPOLL
afd -DNETIO_NO_AFD
only-select -DNETIO_NO_POLL -DNETIO_NO_EPOLL -DNETIO_NO_KQUEUE -DNETIO_NO_WSAPOLL -DNETIO_NO_AFD
only-poll -DNETIO_NO_SELECT -DNETIO_NO_EPOLL -DNETIO_NO_KQUEUE
all $all
all-and-backends $all $backends
T

# A poller without any backend makes no sense.
deny "no backend" "$cc" $backends -I"$root" "$work/main.c" -o "$work/a" -pthread
try "no backend: netio.h says so" grep -q 'netio\.h:.*error: .*NETIO_NO_POLLER' "$work/errors"
try "no backend: and nothing else" [ "$(grep -c 'error:' "$work/errors")" = 1 ]

while read -r switch call; do
    printf '#include "netio.h"\nint main(void) { %s; return 0; }\n' "$call" >"$work/use.c"
    try "$switch: $call without it" "$cc" -I"$root" -c "$work/use.c" -o "$work/o"
    deny "$switch: $call" "$cc" -Werror=implicit-function-declaration -D$switch -I"$root" \
        -c "$work/use.c" -o "$work/o"
done <<'T'
NETIO_NO_UNIX netio_unix_unlink(0)
NETIO_NO_POLLER netio_poller_open(0, 0)
NETIO_NO_POLLER netio_poller_wake(0)
NETIO_NO_POLLER netio_backend_name(0)
T

if command -v nm >/dev/null 2>&1; then
    while read -r switch symbols; do
        "$cc" -D$switch -DNETIO_IMPLEMENTATION -I"$root" -c "$root/tests/compile/header.c" -o "$work/o"
        try "$switch: nothing of $symbols is used" sh -c "! nm -u '$work/o' | grep -E ' ($symbols)'"
    done <<'T'
NETIO_NO_THREADS pthread_create|CreateThread
NETIO_NO_POLLER epoll_|kqueue|kevent|realloc
NETIO_NO_EPOLL epoll_
NETIO_NO_KQUEUE kqueue|kevent
T
fi
finish
