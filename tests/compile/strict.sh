#!/bin/sh
# Under every standard and the strictest usual warnings, all errors: declarations alone, their use,
# and the implementation of both headers; then with optimisation, which is when some warnings are
# found. netio_tls.h brings all of netio.h; what netio.h is without it, one standard tells.
#
#     strict.sh C-COMPILER C++-COMPILER [STANDARD...]     "-" for none; with standards: these alone
. "$(dirname "$0")/kit.sh"
cc=$1 cxx=$2
shift 2
full=$#

if [ "$cc" != - ]; then
    need "$cc"
    tls_of "$cc"
    for std in ${*:-c99 c11 c17 gnu17}; do
        strict="$cc -std=$std $warnings -I$root -fsyntax-only"
        try "$std: declarations" $strict "$here/header.c"
        try "$std: declarations in use" $strict "$here/uses.c"
        try "$std: declarations of TLS in use" $strict "$here/uses_tls.c"
        try "$std: implementation" $strict -DNETIO_IMPLEMENTATION $tls "$here/tls.c"
    done
    strict="$cc -std=c99 $warnings -I$root -DNETIO_IMPLEMENTATION"
    try "c99: implementation, no TLS" $strict -c "$here/header.c" -o "$work/o"
    try "c99: implementation, TLS without a library" $strict -DNETIO_TLS_NONE -fsyntax-only \
        "$here/tls.c"
    [ "$full" != 0 ] || try "implementation, -O2" $strict $tls -O2 -c "$here/tls.c" -o "$work/o"
fi
if [ "$cxx" != - ]; then
    need "$cxx"
    tls_of "$cxx" -x c++
    for std in c++11 c++14 c++17 c++20; do
        strict="$cxx -x c++ -std=$std $warnings -I$root -fsyntax-only"
        try "$std: declarations" $strict -Wold-style-cast "$here/header.c"
        try "$std: declarations in use" $strict -Wold-style-cast "$here/uses.c"
        try "$std: declarations of TLS in use" $strict -Wold-style-cast "$here/uses_tls.c"
        try "$std: implementation" $strict -DNETIO_IMPLEMENTATION $tls "$here/tls.c"
    done
    strict="$cxx -x c++ -std=c++11 $warnings -I$root -DNETIO_IMPLEMENTATION -fsyntax-only"
    try "c++11: implementation, no TLS" $strict "$here/header.c"
    try "c++11: implementation, TLS without a library" $strict -DNETIO_TLS_NONE "$here/tls.c"
fi
finish
