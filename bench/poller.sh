#!/bin/sh
# What netio_poller costs over the system calls behind it: CPU time, system calls, instructions,
# cost of a wait and of a change, memory, compile time, size. See README.md. About four minutes.
command -v python3 >/dev/null || { echo "bench: python3 is missing" >&2; exit 77; }
exec python3 -B "$(dirname "$0")/poller.py" "$@"
