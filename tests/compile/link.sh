#!/bin/sh
# Several files of one program: one implements; none, or two, is a plain error of the linker; and
# with NETIO_STATIC each has a private copy, without a warning about functions it does not use. With
# both headers, so that all calls of netio_tls.h find what they need, too.
#
#     link.sh C-COMPILER C++-COMPILER
. "$(dirname "$0")/kit.sh"
cc=$1 cxx=$2
need "$cc"
tls_of "$cc"
libraries="-pthread"
[ $tls = -DNETIO_TLS_NONE ] || libraries="-lssl -lcrypto -pthread"

cat >"$work/uses.c" <<'C'
#include "netio_tls.h"
int main(void)
{
    netio_addr a;
    netio_tls_ctx_unref(0);
    return netio_addr_parse(&a, "127.0.0.1:80", 12) + (netio_tls_backend(0) == 0);
}
C
cat >"$work/implements.c" <<'C'
#define NETIO_IMPLEMENTATION
#include "netio_tls.h"
C
cat >"$work/static_main.c" <<'C'
#define NETIO_STATIC
#define NETIO_IMPLEMENTATION
#include "netio_tls.h"
#ifdef __cplusplus
extern "C"
#endif
int other(void);
int main(void)
{
    netio_addr a;
    return netio_addr_parse(&a, "127.0.0.1:80", 12) + (netio_tls_backend(0) == 0) + other();
}
C
cat >"$work/static_other.c" <<'C'
#define NETIO_STATIC
#define NETIO_IMPLEMENTATION
#include "netio_tls.h"
#ifdef __cplusplus
extern "C"
#endif
int other(void);
int other(void) { return netio_strerror(NETIO_EOF) == 0; }
C

# object NAME COMPILER...: every file is compiled once; what is asked here is asked of the linker.
object()
{
    object=$1
    shift
    try "$object.o" "$@" $tls -I"$root" -o "$work/$object.o" -c
}
linker=$cc
# link OBJECT...
link()
{
    names=""
    for o; do names="$names $work/$o.o"; done
    $linker $names -o "$work/a" $libraries
}

object uses "$cc" $warnings "$work/uses.c"
object implements "$cc" "$work/implements.c"
cp "$work/implements.o" "$work/implements_too.o"
try "one implements" link uses implements
try "it runs" "$work/a"
deny "nobody implements" link uses
try "nobody implements: the linker says so" grep -q 'undefined reference\|Undefined symbols' \
    "$work/errors"
deny "two implement" link uses implements implements_too
try "two implement: the linker says so" grep -q 'multiple definition\|duplicate symbol' "$work/errors"
object static_main "$cc" -std=c99 $warnings "$work/static_main.c"
object static_other "$cc" -std=gnu17 $warnings "$work/static_other.c"
try "NETIO_STATIC in two files" link static_main static_other
try "it runs" "$work/a"
if command -v "$cxx" >/dev/null 2>&1; then
    linker=$cxx
    object uses_cxx "$cxx" -x c++ -std=c++11 $warnings "$work/uses.c"
    object implements_cxx "$cxx" -x c++ -std=c++11 "$work/implements.c"
    object static_cxx "$cxx" -x c++ -std=c++11 $warnings "$work/static_other.c"
    try "C implements, C++ uses" link uses_cxx implements
    try "it runs" "$work/a"
    try "C++ implements, C uses" link uses implements_cxx
    try "it runs" "$work/a"
    try "NETIO_STATIC in a file of C and one of C++" link static_main static_cxx
    try "it runs" "$work/a"
fi

# NETIO_API replaces `extern`: here to hide everything, as inside a library of the user's.
try "NETIO_API" "$cc" -I"$root" $tls -fvisibility=default -shared -fPIC \
    '-DNETIO_API=__attribute__((visibility("hidden"))) extern' "$work/implements.c" -o "$work/a" \
    $libraries
if command -v nm >/dev/null 2>&1; then
    try "NETIO_API: nothing exported" sh -c "! nm -D --defined-only '$work/a' | grep netio_"
fi
finish
