#!/bin/sh
# Builds every server whose library is there, runs each workload for 0.3 s and each measurement of
# poller.sh, sockets.sh, tls.sh and the programs by themselves (frame, websocket, network, timers) as
# short as it can be. Numbers mean nothing here: this shows that the benchmark works.
# --short: netio's own servers and a few workloads only. Exit code 77 if a tool is missing that
# nothing runs without.
dir=$(cd "$(dirname "$0")" && pwd) || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/netio-bench.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

programs()
{
    for cc in ${CC:-} cc gcc clang; do
        command -v "$cc" >/dev/null 2>&1 && break
        cc=""
    done
    [ -n "$cc" ] || { echo "bench: there is no C compiler" >&2; return 77; }
    for name; do
        echo "== $name"
        "$cc" -O2 -I"$dir/.." "$dir/$name.c" -o "$work/$name" -pthread || return
        "$work/$name" --quick || return
    done
}

if [ "${1:-}" = --short ]; then
    programs frame websocket network timers || exit
    sh "$dir/bench.sh" --smoke --servers epoll-lt,netio,netio-poller --workloads echo50-64,churn ||
        exit
    sh "$dir/sockets.sh" --smoke --only echo,segments || exit
    sh "$dir/poller.sh" --smoke --only change,memory,size
    exit
fi
programs frame websocket network timers || exit
sh "$dir/bench.sh" --smoke || exit
sh "$dir/tls.sh" --quick || [ $? = 77 ] || exit
sh "$dir/sockets.sh" --smoke || exit
sh "$dir/poller.sh" --smoke
