#!/bin/sh
# MinGW: declarations and implementation, before and after <windows.h>, with and without the macros
# that programs define for it, for the oldest and the newest Windows, in C and C++.
. "$(dirname "$0")/../tools/check.sh"
prefix=x86_64-w64-mingw32
need $prefix-gcc

before='#include "netio.h"
#include <windows.h>
'
after='#include <windows.h>
#include "netio.h"
'
sockets='#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include "netio.h"
'
for order in before after sockets; do
    eval "printf '%s' \"\$$order\"" >"$work/$order.c"
done

check()
{
    # check PART MACROS ORDER COMPILER...
    part=$1 macros=$2 order=$3
    shift 3
    set -- "$@" $warnings $part $macros -I"$root" -fsyntax-only "$work/$order.c"
    case $order$part$macros in
    after-DNETIO_IMPLEMENTATION*LEAN*) try "$part $macros, $order" "$@" ;;
    after-DNETIO_IMPLEMENTATION*)
        # Without WIN32_LEAN_AND_MEAN it has brought <winsock.h>, which excludes <winsock2.h>.
        deny "$part $macros, $order" "$@"
        try "netio.h says what to do" grep -q 'netio\.h.*#error.*windows\.h' "$work/errors"
        try "and nothing else" [ "$(grep -c 'error:' "$work/errors")" = 1 ]
        ;;
    *) try "$part $macros, $order" "$@" ;;
    esac
}

for part in "" -DNETIO_IMPLEMENTATION; do
    for order in before after sockets; do
        for macros in "" -DNOMINMAX -DWIN32_LEAN_AND_MEAN "-DUNICODE -D_UNICODE -D_WIN32_WINNT=0x0601"; do
            check "$part" "$macros" $order $prefix-gcc -std=c99
        done
        check "$part" "-DNOMINMAX -DWIN32_LEAN_AND_MEAN -D_WIN32_WINNT=0x0A00" $order $prefix-gcc \
            -std=gnu17
        command -v $prefix-g++ >/dev/null 2>&1 || continue
        check "$part" "" $order $prefix-g++ -x c++ -std=c++11
        check "$part" "-DNOMINMAX -DWIN32_LEAN_AND_MEAN" $order $prefix-g++ -x c++ -std=gnu++17
    done
done
try "implementation, -Os" $prefix-gcc -std=c99 -Os $warnings -DNETIO_IMPLEMENTATION -I"$root" \
    -c -o "$work/o" "$root/tests/compile/header.c"
try "a program links with ws2_32 alone" sh -c "echo 'int main(void) { return 0; }' |
    cat '$root/tests/compile/header.c' - >'$work/main.c' &&
    $prefix-gcc -DNETIO_IMPLEMENTATION -I'$root' '$work/main.c' -o '$work/main.exe' -lws2_32"
finish
