#!/bin/sh
# What comes out of netio.h and netio_tls.h into a program: names that begin with netio_ or NETIO_,
# three headers of the C standard, and nothing else. And what the implementation takes from the
# system: nothing that prints, ends the program, reads the environment or touches signal handlers.
# (netio_tls.h brings netio.h along, so that one look at it tells of both.)
#
#     escapes.sh C-COMPILER
. "$(dirname "$0")/kit.sh"
cc=$1
need "$cc" nm
tls_of "$cc"
use_kit "$cc" -
header=$here/tls.c

# Prints the file's lines and fails if there are any.
none()
{
    ! grep . "$1"
}

# --- headers ---------------------------------------------------------------------------------------

"$cc" -H -fsyntax-only -I"$root" "$header" 2>"$work/headers"
sed -n 's/^\.\. .*\/\(.*\)/\1/p' "$work/headers" | sort -u |
    grep -vxE 'stdbool\.h|stddef\.h|stdint\.h|netio\.h' >"$work/extra"
try "declarations include stdbool.h, stddef.h, stdint.h only" none "$work/extra"

# --- macros ----------------------------------------------------------------------------------------

macros()
{
    "$cc" -I"$root" -E -dM "$@" | sed 's/^#define \([A-Za-z0-9_]*\).*/\1/' | sort -u
}
printf '#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n' >"$work/std.c"
macros "$work/std.c" >"$work/before"
macros "$header" >"$work/after"
comm -13 "$work/before" "$work/after" | grep -v '^NETIO_' >"$work/extra"
try "declarations define NETIO_ macros only" none "$work/extra"

# The implementation drags the system's own macros in; those that netio.h itself defines are in its
# text. The others on the list switch the system's headers to what netio needs of them.
sed -n 's/^ *# *define  *\([A-Za-z0-9_]*\).*/\1/p' "$root/netio.h" "$root/netio_tls.h" | sort -u |
    grep -vE '^NETIO_|^_GNU_SOURCE$|^_DARWIN_C_SOURCE$|^_DARWIN_UNLIMITED_SELECT$|^__APPLE_USE_RFC_3542$|^_NETBSD_SOURCE$|^__BSD_VISIBLE$|^_WIN32_WINNT$|^WIN32_LEAN_AND_MEAN$|^NOMINMAX$|^_DEFAULT_SOURCE$|^__EXTENSIONS__$' \
        >"$work/extra"
try "the implementation defines NETIO_ macros only" none "$work/extra"

# --- names in the declarations ---------------------------------------------------------------------

if command -v clang >/dev/null 2>&1; then
    # Every declaration at file scope, and every constant of an enum.
    names()
    {
        clang -I"$root" -fsyntax-only -fno-color-diagnostics -Xclang -ast-dump "$1" 2>/dev/null |
            sed -nE -e '/ implicit /d' -e '/^[|`]-(Function|Var|Typedef|Record|Enum)Decl/p' \
                -e '/^[| ] [|`]-EnumConstantDecl/p' |
            sed -E -e "s/ '.*//" -e 's/ (extern|static|definition|referenced|used)//g' -e 's/.* //' |
            sort -u
    }
    names "$work/std.c" >"$work/before"
    names "$header" >"$work/after"
    # An enum or struct without a name ends in its place in the file: col:6.
    comm -13 "$work/before" "$work/after" |
        grep -vE '^netio_[a-z]|^NETIO_[A-Z]|^(struct|enum|union)$|(col|line):[0-9:]*>?$' >"$work/extra"
    try "declarations declare netio_ and NETIO_ names only" none "$work/extra"
    try "there are some" grep -qx netio_connect "$work/after"
    try "constants too" grep -qx NETIO_BACKEND_EPOLL "$work/after"
    try "and those of TLS" grep -qx NETIO_TLS_BACKEND_OPENSSL "$work/after"
fi

# The same from the other side: a program may give these names to anything of its own.
cat >"$work/own.c" <<'C'
#include "netio_tls.h"
enum { AF_INET = 77, SOCK_STREAM, EAGAIN, INVALID_SOCKET, POLLIN };
typedef struct socket { int x; } socket_type;
typedef char *SOCKET;
typedef struct SSL { int y; } SSL;
typedef int X509;
static double socket, bind, listen, accept, connect, send, recv, poll, select, close, shutdown;
static double errno, addrinfo, sockaddr, timeval, event, buf, addr, error, min, max;
double own(void);
double own(void)
{
    SOCKET s = 0;
    struct socket t = {AF_INET + SOCK_STREAM + EAGAIN + INVALID_SOCKET + POLLIN};
    return socket + bind + listen + accept + connect + send + recv + poll + select + close +
           shutdown + errno + addrinfo + sockaddr + timeval + event + buf + addr + error + min +
           max + t.x + (s != 0);
}
C
try "declarations leave the system's names to the program" \
    "$cc" -std=c99 -fno-builtin -I"$root" -c "$work/own.c" -o "$work/o"
if command -v g++ >/dev/null 2>&1; then
    try "in C++ too" g++ -x c++ -std=c++11 -fno-builtin -I"$root" -c "$work/own.c" -o "$work/o"
fi

# --- symbols of the object -------------------------------------------------------------------------

# Not position-independent, or constant tables of pointers would count as writable.
"$cc" -fno-pic -fno-pie $tls -DNETIO_IMPLEMENTATION -I"$root" -c "$header" -o "$work/o"
# With optimisation gcc makes tables and parts of functions of its own.
"$cc" -O1 -DNETIO_IMPLEMENTATION -I"$root" -c "$here/header.c" -o "$work/optimized"
for object in o optimized; do
    # A static inside a function has a number behind its name; CSWTCH is a table made by gcc, and
    # OpenSSL's headers have functions of their own.
    nm --defined-only "$work/$object" | awk '{ print $NF }' |
        grep -vE '^(netio_|\.L|\.C|CSWTCH\.|ERR_GET_|ossl_check_)|\.[0-9]+$' >"$work/extra"
    try "$object: every symbol begins with netio_" none "$work/extra"
    nm --defined-only --extern-only "$work/$object" | awk '{ print $NF }' |
        grep -vE '^netio_[a-z]' >"$work/extra"
    try "$object: exported symbols are public names" none "$work/extra"
done
# tcc keeps the functions that nobody calls, which all are in this case.
$quick -w -DNETIO_STATIC -DNETIO_TLS_NONE -DNETIO_IMPLEMENTATION -I"$root" -c "$header" \
    -o "$work/static"
nm --defined-only --extern-only "$work/static" >"$work/extra"
try "NETIO_STATIC: nothing is exported" none "$work/extra"

# Every function that is declared is there, and nothing public is there that is not declared.
nm --defined-only --extern-only "$work/o" | awk '{ print $NF }' | sort -u >"$work/defined"
"$cc" -E -P -DNETIO_API=netio_api -I"$root" "$header" | tr '\n' ' ' | tr ';' '\n' |
    sed -n 's/.*netio_api [^(]*[ *]\(netio_[a-z0-9_]*\)(.*/\1/p' | sort -u >"$work/declared"
comm -3 "$work/defined" "$work/declared" >"$work/extra"
try "declared and defined are the same functions" none "$work/extra"
try "there are some" [ "$(wc -l <"$work/declared")" -gt 50 ]

# But for signal handlers where there is a loop: netio_signal_start is asked for one by name.
$quick -w -DNETIO_NO_LOOP -DNETIO_TLS_NONE -DNETIO_IMPLEMENTATION -I"$root" -c "$header" \
    -o "$work/without"
nm -u "$work/without" | awk '{ print $NF }' | sed 's/@.*//' | grep -x sigaction >"$work/extra"
try "without a loop nothing sets signal handlers" none "$work/extra"
takes()
{
    nm -u "$work/$1" | awk '{ print $NF }' | sed 's/@.*//' | grep -xE "$2" >"$work/extra"
}
forbidden='(f|v|vf|d)?printf|puts|putchar|fputs|fwrite|perror|abort|exit|_exit|atexit|getenv|setenv'
forbidden="$forbidden|secure_getenv|signal|bsd_signal|syslog|assert|__assert_fail|rand|srand|strtok"
forbidden="$forbidden|gethostbyname|inet_ntoa|gettimeofday|localtime|setlocale"
takes o "$forbidden"
try "the implementation does not print, exit, read the environment or set handlers" none "$work/extra"
takes optimized time # certificates need it
try "without TLS it does not ask for the date" none "$work/extra"

# Writable data: see the thread contract. Thread-local data: none. The netio__no_ structs are all
# zero and stay so: what NULL for an options struct means. In C++ they could not be const without an
# initialiser, and every one that C takes warns there or here.
nm --defined-only "$work/o" |
    awk '$(NF - 1) ~ /^[bBdDC]$/ && $NF !~ /^netio__no_/ { print $NF }' >"$work/extra"
sed 's/^/writable: /' "$work/extra"
try "no more than five writable objects: three locks, and what two of them guard" \
    [ "$(wc -l <"$work/extra")" -le 5 ]
if command -v readelf >/dev/null 2>&1; then
    try "no thread-local data" sh -c "! readelf -sW '$work/o' | awk '\$4 == \"TLS\"' | grep ."
fi
finish
