#!/bin/sh
# Compile for a system that is not here: zig brings the headers of several. Declarations, their use
# and the implementation, as C99 and as C++11; netio_tls.h without a library.
#
#     zig.sh TARGET        x86_64-macos, x86_64-freebsd, aarch64-windows-gnu, ...
. "$(dirname "$0")/kit.sh"
target=$1

# What run.sh installed, a zig of the system, or the Python package.
if [ -x "${NETIO_ZIG:-}" ]; then
    zig=$NETIO_ZIG
elif command -v zig >/dev/null 2>&1; then
    zig=zig
elif python3 -m ziglang version >/dev/null 2>&1; then
    zig="python3 -m ziglang"
else
    skip "there is no zig here (pip install ziglang)"
fi
version=$($zig version)

# zig turns traps of UBSan on by itself, and its glibc headers use _Generic in C99.
zcc="$zig cc -target $target -fno-sanitize=undefined"
case $target in
*windows*) echo '#include <winsock2.h>' >"$work/probe.c" ;;
*) echo '#include <sys/socket.h>' >"$work/probe.c" ;;
esac
$zcc -c "$work/probe.c" -o "$work/o" >"$work/probe.log" 2>&1 ||
    skip "zig $version has no headers for $target: $(head -n 1 "$work/probe.log")"

strict="$warnings -Wno-c11-extensions -I$root -c -o $work/o"
whole="-DNETIO_IMPLEMENTATION -DNETIO_TLS_NONE $here/tls.c"
try "c99: declarations in use" $zcc -std=c99 $strict "$here/uses.c"
try "c99: declarations of TLS in use" $zcc -std=c99 $strict "$here/uses_tls.c"
try "c99: implementation, no TLS" $zcc -std=c99 $strict -DNETIO_IMPLEMENTATION "$here/header.c"
try "gnu17: implementation" $zcc -std=gnu17 $strict $whole
# The C headers alone: libc++ takes a minute to unpack, and netio includes none of it.
try "c++11: implementation" $zcc -x c++ -std=c++11 $strict $whole
echo "zig $version, $target"
finish
