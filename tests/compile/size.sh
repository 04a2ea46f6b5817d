#!/bin/sh
# Object code of the implementation at -Os: at most 60 KiB for errors, time, addresses, sockets,
# options and pollers together. What the loop, framing and helpers add has no limit, and TLS over
# OpenSSL one of 64 KiB. README.md tells gcc's figures for x86-64, and the lines of netio.h; they may
# be off by 10 % and 5 % before somebody has to write new ones.
#
#     size.sh C-COMPILER
. "$(dirname "$0")/kit.sh"
cc=$1
need "$cc" size
limit=61440 tls_limit=65536

# Prints the bytes of the object made with these arguments. It warns as strict.sh does: some of that
# is only found with optimisation.
bytes_of()
{
    "$cc" -std=c99 -Os -DNDEBUG $warnings "$@" -DNETIO_IMPLEMENTATION -I"$root" -c -o "$work/o" &&
        size "$work/o" | awk 'NR == 2 { print $1 + $2 + $3 }'
}
small=$(bytes_of -DNETIO_NO_LOOP -DNETIO_NO_FRAME -DNETIO_NO_HELPERS "$here/header.c")
whole=$(bytes_of "$here/header.c")
echo "$cc -Os, sockets and pollers: ${small:-nothing} of $limit bytes"
echo "everything: ${whole:-nothing}"
try "the object is not empty" [ "${small:-0}" -gt 1000 ]
try "at most $limit bytes" [ "${small:-999999}" -le "$limit" ]

tls_of "$cc"
if [ $tls = -DNETIO_TLS_OPENSSL ]; then
    both=$(bytes_of $tls "$here/tls.c")
    added=$((${both:-0} - ${whole:-0}))
    echo "netio_tls.h with OpenSSL: $added of $tls_limit bytes"
    try "TLS is not empty" [ "$added" -gt 1000 ]
    try "TLS: at most $tls_limit bytes" [ "$added" -le "$tls_limit" ]
fi

# said "WHAT" IS SAID PERCENT
said()
{
    try "README.md: $1 ${3:-none} (it is $2)" awk -v is="$2" -v said="${3:-0}" -v off="$4" \
        'BEGIN { exit !(is <= said * (1 + off / 100) && is >= said * (1 - off / 100)) }'
}
kib()
{
    sed -nE "s/.*$1: about ([0-9]+) KiB at -Os.*/\1/p" "$root/README.md"
}
if [ "$(uname -sm)" = "Linux x86_64" ] && "$cc" --version 2>/dev/null | grep -q 'Free Software' &&
    [ -f "$root/README.md" ]; then
    said "everything, KiB" $(((${whole:-0} + 512) / 1024)) "$(kib everything)" 10
    said "sockets-and-pollers, KiB" $(((${small:-0} + 512) / 1024)) "$(kib sockets-and-pollers)" 10
    said "lines" "$(wc -l <"$root/netio.h")" \
        "$(sed -nE 's/.*some ([0-9]+),([0-9]+) lines.*/\1\2/p' "$root/README.md")" 5
fi
finish
