#!/bin/sh
# Object code of the implementation at -Os: at most 60 KiB for errors, time, addresses, sockets,
# options and pollers together.
#
#     size.sh C-COMPILER
. "$(dirname "$0")/../tools/check.sh"
cc=$1
need "$cc" size
limit=61440

"$cc" -std=c99 -Os -DNETIO_IMPLEMENTATION -I"$root" -c "$root/tests/compile/header.c" -o "$work/o"
bytes=$(size "$work/o" | awk 'NR == 2 { print $1 + $2 + $3 }')
echo "$cc -Os: ${bytes:-nothing} of $limit bytes"
try "the object is not empty" [ "${bytes:-0}" -gt 1000 ]
try "at most $limit bytes" [ "${bytes:-999999}" -le "$limit" ]
finish
