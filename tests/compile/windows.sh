#!/bin/sh
# MinGW: declarations and implementation, before and after <windows.h>, with and without the macros
# that programs define for it, for the oldest and the newest Windows, in C and C++; netio_tls.h there
# without a library.
. "$(dirname "$0")/kit.sh"
prefix=x86_64-w64-mingw32
need $prefix-gcc

echo '#include "netio_tls.h"
#include <windows.h>' >"$work/before.c"
echo '#include <windows.h>
#include "netio_tls.h"' >"$work/after.c"
echo '#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include "netio_tls.h"' >"$work/sockets.c"

# check "PART" "MACROS" ORDER COMPILER...
check()
{
    what=$1 macros=$2 order=$3
    shift 3
    set -- "$@" $what $macros -DNETIO_TLS_NONE -I"$root" -fsyntax-only "$work/$order.c"
    case $order$what$macros in
    after-DNETIO_IMPLEMENTATION*LEAN*) try "$what $macros, $order" "$@" ;;
    after-DNETIO_IMPLEMENTATION*)
        # Without WIN32_LEAN_AND_MEAN it has brought <winsock.h>, which excludes <winsock2.h>.
        deny "$what $macros, $order" "$@"
        try "netio.h says what to do" grep -q 'netio\.h.*#error.*windows\.h' "$work/errors"
        try "and nothing else" [ "$(grep -c 'error:' "$work/errors")" = 1 ]
        ;;
    *) try "$what $macros, $order" "$@" ;;
    esac
}

part=-DNETIO_IMPLEMENTATION
for order in before after sockets; do
    check "" "" $order $prefix-gcc -std=c99 -Werror
    for macros in "" -DNOMINMAX -DWIN32_LEAN_AND_MEAN "-DUNICODE -D_UNICODE -D_WIN32_WINNT=0x0601"; do
        check $part "$macros" $order $prefix-gcc -std=c99 -Werror
    done
    check $part "-DNOMINMAX -DWIN32_LEAN_AND_MEAN -D_WIN32_WINNT=0x0A00" $order $prefix-gcc \
        -std=gnu17 -Werror
    command -v $prefix-g++ >/dev/null 2>&1 || continue
    check "" "" $order $prefix-g++ -x c++ -std=c++11 -Werror
    check $part "-DNOMINMAX -DWIN32_LEAN_AND_MEAN" $order $prefix-g++ -x c++ -std=gnu++17 -Werror
done
strict="$prefix-gcc -std=c99 $warnings -I$root"
try "declarations, warnings" $strict -fsyntax-only "$here/uses.c"
try "declarations of TLS, warnings" $strict -fsyntax-only "$here/uses_tls.c"
try "implementation, warnings" $strict -DNETIO_TLS_NONE -DNETIO_IMPLEMENTATION -c "$here/tls.c" \
    -o "$work/o"
if command -v $prefix-g++ >/dev/null 2>&1; then
    try "implementation as C++, warnings" $prefix-g++ -x c++ -std=c++11 $warnings -I"$root" \
        -DNETIO_TLS_NONE -DNETIO_IMPLEMENTATION -fsyntax-only "$here/tls.c"
fi
echo '#include "netio_tls.h"
int main(void) { return netio_tls_backend(0) == 0; }' >"$work/main.c"
try "a program links with ws2_32 alone" $prefix-gcc -I"$root" "$work/main.c" "$work/o" \
    -o "$work/main.exe" -lws2_32
finish
