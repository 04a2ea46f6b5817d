#!/bin/sh
# What netio's TLS costs over the library it drives: tls.c, and the system calls of a transfer and
# of a trust store. See README.md. Servers under load are bench.sh's: --workloads 'tls-*'. --quick:
# as short as it can be. Exit code 77: a tool is missing that nothing runs without.
dir=$(cd "$(dirname "$0")" && pwd) || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/netio-bench.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

cc=${CC:-cc}
command -v "$cc" >/dev/null || { echo "bench: there is no C compiler" >&2; exit 77; }
"$cc" -O2 -I"$dir/.." "$dir/tls.c" -o "$work/tls" -lssl -lcrypto -pthread 2>"$work/why" || {
    echo "bench: left out: TLS ($(grep -m 1 error "$work/why"))" >&2
    exit 77
}
"$work/tls" "$@"
result=$?
command -v strace >/dev/null || {
    echo "bench: left out: system calls (strace is missing)" >&2
    exit $result
}

# The least of some runs: what disturbs a transfer makes it stop and wait more often.
least=999999
for _ in 1 2 3 4 5; do
    strace -f -c -o "$work/calls" "$work/tls" transfer >"$work/out" || exit 1
    n=$(awk '$NF == "total" { print $4 }' "$work/calls")
    [ "$n" -lt "$least" ] && least=$n
    [ "${1:-}" = --quick ] && break
done
cat "$work/out"
echo "system calls of it, both ends, start and end of the program included: $least   <= 2500"
for n in 1 20; do
    strace -f -e trace=open,openat -o "$work/calls" "$work/tls" trust "$work/roots.pem" $n || exit 1
    all=$(grep -c open "$work/calls")
    roots=$(grep -c 'roots.pem", O_RDONLY' "$work/calls")
    echo "files opened for $n verified connections: $all, those of the roots: $roots"
done
[ "$least" -le 2500 ] || [ "${1:-}" = --quick ] || result=1
exit $result
