#!/bin/sh
# What netio's calls for datagrams and files cost next to the system calls behind them: UDP echo,
# GSO and GRO, sendfile; CPU time, system calls, instructions. See README.md. About two minutes.
command -v python3 >/dev/null || { echo "bench: python3 is missing" >&2; exit 77; }
exec python3 -B "$(dirname "$0")/sockets.py" "$@"
