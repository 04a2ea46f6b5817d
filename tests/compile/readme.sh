#!/bin/sh
# The code in README.md works as it is printed: every ```c block compiles, programs link with one
# plain compiler line as C and as C++, and those marked <!-- run --> run. See extract-blocks.awk.
# What it names is there, its table of options is netio.h's, its figure of the size is true.
#
#     readme.sh C-COMPILER C++-COMPILER
. "$(dirname "$0")/../tools/check.sh"
cc=$1 cxx=$2
need "$cc" awk
[ -f "$root/README.md" ] || skip "there is no README.md yet"

awk -v out="$work" -f "$root/tests/tools/extract-blocks.awk" "$root/README.md"
cp "$root/netio.h" "$work" # as a reader would: the header beside the program
includes='#include "netio.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#line 1 "README.md"
'
strict="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Werror"

for block in "$work"/[0-9]*.c; do
    [ -f "$block" ] || break
    line=$(basename "$block" | sed 's/^0*//; s/-.*//')
    what="README.md:$line"
    case $block in
    *-body.c)
        { printf '%svoid body(void);\nvoid body(void)\n{\n' "$includes"; cat "$block"; echo '}'; } \
            >"$work/body.c"
        try "$what: statements compile" "$cc" -Wall -Wno-unused -Werror -c "$work/body.c" -o "$work/o"
        ;;
    *-top.c)
        { printf '%s' "$includes"; cat "$block"; } >"$work/top.c"
        try "$what: functions compile" "$cc" -Wall -Wno-unused -Werror -c "$work/top.c" -o "$work/o"
        ;;
    *)
        try "$what: cc program.c" "$cc" "$block" -o "$work/a"
        for std in c99 gnu17; do
            try "$what: $std without a warning" "$cc" -std=$std $strict "$block" -o "$work/a" -pthread
        done
        # C++ has designated initialisers since C++20, and g++ warns of what they leave out.
        if command -v "$cxx" >/dev/null 2>&1; then
            try "$what: C++20" "$cxx" -x c++ -std=c++20 $strict -Wno-missing-field-initializers \
                "$block" -o "$work/b" -pthread
        fi
        if command -v x86_64-w64-mingw32-gcc >/dev/null 2>&1; then
            try "$what: MinGW" x86_64-w64-mingw32-gcc "$block" -o "$work/a.exe" -lws2_32
        fi
        case $block in
        *-run.c) try "$what: runs" timeout 20 "$work/a" ;;
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

# The figure is gcc's on x86-64; it may be 10 % off before somebody has to write a new one.
if [ "$(uname -sm)" = "Linux x86_64" ] && "$cc" --version 2>/dev/null | grep -q 'Free Software' &&
    command -v size >/dev/null 2>&1; then
    while read -r what flags; do
        said=$(sed -nE "s/.*$what about ([0-9]+) KiB at -Os.*/\1/p" "$root/README.md")
        "$cc" -std=c99 -Os $flags -DNETIO_IMPLEMENTATION -I"$root" \
            -c "$root/tests/compile/header.c" -o "$work/o"
        kib=$(size "$work/o" | awk 'NR == 2 { printf "%d", ($1 + $2 + $3) / 1024 + 0.5 }')
        try "$what about ${said:-no} KiB (it is $kib)" awk -v is="$kib" -v said="${said:-0}" \
            'BEGIN { exit !(is <= said * 1.1 && is >= said * 0.9) }'
    done <<'T'
everything:
sockets-and-pollers: -DNETIO_NO_LOOP -DNETIO_NO_FRAME -DNETIO_NO_HELPERS
T
    said=$(sed -nE 's/.*some ([0-9]+),([0-9]+) lines.*/\1\2/p' "$root/README.md")
    lines=$(wc -l <"$root/netio.h")
    try "some ${said:-no} lines (it is $lines)" awk -v is="$lines" -v said="${said:-0}" \
        'BEGIN { exit !(is <= said * 1.05 && is >= said * 0.95) }'
fi
finish
