#!/bin/sh
# Network servers next to each other on the loopback; see README.md. Alone: a quick run of a minute;
# with --full: every workload and every server.
cd "$(dirname "$0")" || exit 1
command -v python3 >/dev/null || { echo "bench: python3 is missing" >&2; exit 77; }
exec python3 -B bench.py "$@"
