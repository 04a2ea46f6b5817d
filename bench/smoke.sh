#!/bin/sh
# Builds every server whose library is there, runs each workload for 0.3 s and each measurement of
# poller.sh and sockets.sh as short as it can be. Numbers mean nothing here: this shows that the
# benchmark works.
# --short: netio's own servers and a few workloads only. Exit code 77 if a tool is missing that
# nothing runs without.
dir=$(dirname "$0")
if [ "${1:-}" = --short ]; then
    sh "$dir/bench.sh" --smoke --servers epoll-lt,netio-poller --workloads echo50-64,churn || exit
    sh "$dir/sockets.sh" --smoke --only echo,segments || exit
    exec sh "$dir/poller.sh" --smoke --only change,memory,size
fi
sh "$dir/bench.sh" --smoke || exit
sh "$dir/sockets.sh" --smoke || exit
exec sh "$dir/poller.sh" --smoke
