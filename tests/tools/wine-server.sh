#!/bin/sh
# Wine's server: every socket of a Windows program lives in it. Started once for all tests, because
# a start costs most of a second; the prefix, made once for a build folder, several.
#
#     wine-server.sh start|stop
set -u
. "$(dirname "$0")/wine-env.sh"
case $1 in
start)
    mkdir -p "$WINEPREFIX" || exit 1
    if [ ! -f "$WINEPREFIX/netio-ready" ]; then
        echo "making a Wine prefix in $WINEPREFIX"
        "$wine" wineboot -i >"$WINEPREFIX/netio-boot.log" 2>&1 </dev/null ||
            { cat "$WINEPREFIX/netio-boot.log"; exit 1; }
        wineserver -w # until the registry is written
        : >"$WINEPREFIX/netio-ready"
    fi
    # It ends by itself 300 s after the last program, should nobody stop it.
    wineserver -p300 >/dev/null 2>&1 </dev/null
    # Wine's background processes begin with the first program and must not hold on to our output.
    "$wine" cmd /c ver >"$WINEPREFIX/netio-boot.log" 2>&1 </dev/null
    status=$?
    cat "$WINEPREFIX/netio-boot.log"
    exit $status
    ;;
stop)
    wineserver -k
    exit 0 # there was none: also good
    ;;
*)
    exit 2
    ;;
esac
