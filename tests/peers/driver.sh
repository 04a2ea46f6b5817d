#!/bin/sh
# driver.sh - print the command that runs the driver, compiling it first where there is none.
# NETIO_DRIVER   the command itself, such as "wine /tmp/driver.exe"; used as it is
# NETIO_BUILD    folder with the built programs: peers_driver is taken from there, or built there
# NETIO_SOURCE   folder of netio.h; by default the one this file lies in
# CC, CFLAGS     for the compiler
set -eu
here=$(dirname "$(readlink -f "$0")")
source=${NETIO_SOURCE:-$here/../..}

if [ -n "${NETIO_DRIVER:-}" ]; then echo "$NETIO_DRIVER"; exit 0; fi
if [ -n "${NETIO_BUILD:-}" ] && [ -d "$NETIO_BUILD" ]; then
    out=$(readlink -f "$NETIO_BUILD")/peers_driver
else
    tree=$(readlink -f "$source" | cksum | cut -d' ' -f1)
    out=${TMPDIR:-/tmp}/netio-driver-$(id -u)-$tree
fi
# -O: in a folder that everybody writes to, somebody else's file of that name is not ours to run.
if [ ! -O "$out" ] || [ -n "$(find "$source/netio.h" "$here/driver.c" -newer "$out")" ]; then
    # Renaming makes a half-written program impossible to see for a test that runs beside this one.
    # shellcheck disable=SC2086
    ${CC:-cc} ${CFLAGS:--std=c99 -O1 -g} -I"$source" "$here/driver.c" -o "$out.$$" -pthread >&2
    mv -f "$out.$$" "$out"
fi
echo "$out"
