#!/bin/sh
# The code in README.md works as it is printed: every ```c block compiles, programs link with one
# plain compiler line as C and as C++, and those marked <!-- run --> run. See extract-blocks.awk.
# What it names is there, and its table of options is netio.h's. (Its figures: size.sh.)
#
#     readme.sh C-COMPILER C++-COMPILER
. "$(dirname "$0")/kit.sh"
cc=$1 cxx=$2
need "$cc" awk
[ -f "$root/README.md" ] || skip "there is no README.md yet"

awk -v out="$work" -f "$root/tests/tools/extract-blocks.awk" "$root/README.md"
cp "$root/netio.h" "$root/netio_tls.h" "$work" # as a reader would: the headers beside the program
use_kit "$cc" "$cxx"
tls_of "$cc"
includes='#include "netio.h"
#ifdef TLS
#include "netio_tls.h"
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#line 1 "README.md"
'

for block in "$work"/[0-9]*.c; do
    [ -f "$block" ] || break
    line=$(basename "$block" | sed 's/^0*//; s/-.*//')
    what="README.md:$line"
    libraries="" flags=""
    if grep -q 'netio_tls' "$block"; then
        [ $tls = -DNETIO_TLS_OPENSSL ] || continue
        libraries="-lssl -lcrypto" flags=-DTLS
    fi
    case $block in
    *-body.c)
        { printf '%svoid body(void);\nvoid body(void)\n{\n' "$includes"; cat "$block"; echo '}'; } \
            >"$work/body.c"
        try "$what: statements compile" "$cc" $flags -Wall -Wno-unused -Werror -fsyntax-only \
            "$work/body.c"
        ;;
    *-top.c)
        { printf '%s' "$includes"; cat "$block"; } >"$work/top.c"
        try "$what: functions compile" "$cc" $flags -Wall -Wno-unused -Werror -fsyntax-only \
            "$work/top.c"
        ;;
    *)
        for std in c99 gnu17; do
            try "$what: $std without a warning" $lint -std=$std $warnings "$block"
        done
        # C++ has designated initialisers since C++20, and g++ warns of what they leave out.
        if command -v "$cxx" >/dev/null 2>&1; then
            try "$what: C++20" $lintxx -std=c++20 $warnings -Wno-missing-field-initializers "$block"
        fi
        if command -v x86_64-w64-mingw32-gcc >/dev/null 2>&1 && [ -z "$libraries" ]; then
            try "$what: MinGW" x86_64-w64-mingw32-gcc -fsyntax-only "$block"
        fi
        case $block in
        *-run.c)
            try "$what: cc program.c" "$cc" "$block" -o "$work/a" $libraries
            try "$what: runs" timeout 20 "$work/a"
            ;;
        *) try "$what: it links" "$quick" -w "$block" -o "$work/a" $libraries -lpthread ;;
        esac
        ;;
    esac
done

if command -v python3 >/dev/null 2>&1; then
    try "what it names is there" python3 -B "$root/tests/tools/readme_names.py"
    try "the table of options" env CC="$cc" python3 -B "$root/tests/tools/option_table.py" --check
    grep '^skipped:' "$work/log"
else
    echo "skipped: no python3 to look at what README.md names"
fi
finish
