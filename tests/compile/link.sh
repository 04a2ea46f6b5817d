#!/bin/sh
# Several files of one program: one implements; none, or two, is a plain error of the linker; and
# with NETIO_STATIC each has a private copy, without a warning about functions it does not use.
#
#     link.sh C-COMPILER C++-COMPILER
. "$(dirname "$0")/../tools/check.sh"
cc=$1 cxx=$2
need "$cc"

echo '#define NETIO_IMPLEMENTATION
#include "netio.h"' >"$work/implements.c"
cat >"$work/uses.c" <<'C'
#include "netio.h"
int main(void)
{
    netio_addr a;
    return netio_addr_parse(&a, "127.0.0.1:80", 12);
}
C
cat >"$work/static_one.c" <<'C'
#define NETIO_STATIC
#define NETIO_IMPLEMENTATION
#include "netio.h"
int other(void);
int main(void)
{
    netio_addr a;
    return netio_addr_parse(&a, "127.0.0.1:80", 12) + other();
}
C
cat >"$work/static_two.c" <<'C'
#define NETIO_STATIC
#define NETIO_IMPLEMENTATION
#include "netio.h"
int other(void);
int other(void) { return netio_strerror(NETIO_EOF) == 0; }
C
cp "$work/uses.c" "$work/uses.cpp"
cp "$work/implements.c" "$work/implements.cpp"

set -- -I"$root" $warnings -pthread -o "$work/a"
try "one implements" "$cc" "$@" "$work/uses.c" "$work/implements.c"
try "it runs" "$work/a"
deny "nobody implements" "$cc" "$@" "$work/uses.c"
try "nobody implements: the linker says so" grep -q 'undefined reference\|Undefined symbols' \
    "$work/errors"
cp "$work/implements.c" "$work/implements_too.c"
deny "two implement" "$cc" "$@" "$work/uses.c" "$work/implements.c" "$work/implements_too.c"
try "two implement: the linker says so" grep -q 'multiple definition\|duplicate symbol' "$work/errors"
for std in c99 gnu17; do
    try "$std: NETIO_STATIC in two files" "$cc" -std=$std -Wunused-function "$@" \
        "$work/static_one.c" "$work/static_two.c"
    try "$std: it runs" "$work/a"
done
if command -v "$cxx" >/dev/null 2>&1; then
    "$cc" -I"$root" -c "$work/implements.c" -o "$work/implements.o"
    try "C implements, C++ uses" "$cxx" -std=c++11 "$@" "$work/uses.cpp" "$work/implements.o"
    try "it runs" "$work/a"
    "$cxx" -std=c++11 -I"$root" -c "$work/implements.cpp" -o "$work/implements.o"
    try "C++ implements, C uses" "$cc" "$@" "$work/uses.c" "$work/implements.o"
    try "it runs" "$work/a"
    cp "$work/static_one.c" "$work/static_one.cpp"
    cp "$work/static_two.c" "$work/static_two.cpp"
    try "C++: NETIO_STATIC in two files" "$cxx" -std=c++11 "$@" "$work/static_one.cpp" \
        "$work/static_two.cpp"
fi

# NETIO_API replaces `extern`: here to hide everything, as inside a library of the user's.
try "NETIO_API" "$cc" "$@" -fvisibility=default -shared -fPIC \
    '-DNETIO_API=__attribute__((visibility("hidden"))) extern' "$work/implements.c"
if command -v nm >/dev/null 2>&1; then
    try "NETIO_API: nothing exported" sh -c "! nm -D --defined-only '$work/a' | grep netio_"
fi
finish
