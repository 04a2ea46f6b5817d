#!/bin/sh
# Network servers next to each other on the loopback; see README.md. Alone: a quick run of a minute;
# with --full: every workload and every server.
command -v python3 >/dev/null || { echo "bench: python3 is missing" >&2; exit 77; }
exec python3 -B "$(dirname "$0")/bench.py" "$@"
