#!/bin/sh
# Run a Windows program by the tests' Wine: wine.sh PROGRAM [ARGUMENTS]
. "$(dirname "$0")/wine-env.sh"
exec "$wine" "$@"
