#!/bin/sh
# Object code of the implementation at -Os: at most 60 KiB for errors, time, addresses, sockets,
# options and pollers together. What the loop, framing and helpers add has no limit; it is printed.
#
#     size.sh C-COMPILER
. "$(dirname "$0")/../tools/check.sh"
cc=$1
need "$cc" size
limit=61440

# Prints the bytes of the object made with these switches.
bytes_with()
{
    "$cc" -std=c99 -Os "$@" -DNETIO_IMPLEMENTATION -I"$root" -c "$root/tests/compile/header.c" \
        -o "$work/o" && size "$work/o" | awk 'NR == 2 { print $1 + $2 + $3 }'
}

bytes=$(bytes_with -DNETIO_NO_LOOP -DNETIO_NO_FRAME -DNETIO_NO_HELPERS)
echo "$cc -Os, sockets and pollers: ${bytes:-nothing} of $limit bytes"
echo "with framing: $(bytes_with -DNETIO_NO_LOOP -DNETIO_NO_HELPERS)"
echo "with framing and the loop: $(bytes_with -DNETIO_NO_HELPERS)"
echo "everything: $(bytes_with)"
try "the object is not empty" [ "${bytes:-0}" -gt 1000 ]
try "at most $limit bytes" [ "${bytes:-999999}" -le "$limit" ]
finish
