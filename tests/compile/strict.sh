#!/bin/sh
# Under every standard and the strictest usual warnings, all errors: declarations alone, their use,
# and the implementation; without and with optimisation, which is when some warnings are found.
#
#     strict.sh C-COMPILER C++-COMPILER       "-" for none
. "$(dirname "$0")/../tools/check.sh"
cc=$1 cxx=$2
here=$root/tests/compile

for std in c99 c11 c17 gnu17; do
    [ "$cc" = - ] && break
    need "$cc"
    set -- "$cc" -std=$std $warnings -I"$root" -c -o "$work/o"
    try "$std: declarations" "$@" "$here/header.c"
    try "$std: declarations in use" "$@" "$here/uses.c"
    try "$std: implementation" "$@" -DNETIO_IMPLEMENTATION "$here/header.c"
done
for std in c++11 c++14 c++17 c++20; do
    [ "$cxx" = - ] && break
    need "$cxx"
    set -- "$cxx" -x c++ -std=$std $warnings -I"$root" -c -o "$work/o"
    try "$std: declarations" "$@" -Wold-style-cast "$here/header.c"
    try "$std: declarations in use" "$@" -Wold-style-cast "$here/uses.c"
    try "$std: implementation" "$@" -DNETIO_IMPLEMENTATION "$here/header.c"
done
for level in -O2 "-Os -DNDEBUG"; do # one standard will do
    [ "$cc" = - ] ||
        try "implementation, $level" "$cc" -std=c99 $level $warnings -I"$root" -c -o "$work/o" \
            -DNETIO_IMPLEMENTATION "$here/header.c"
done
finish
