#!/bin/sh
# NETIO_VERSION, its three numbers, and the version that CMake read out of the header are the same.
#
#     version.sh C-COMPILER CMAKE-VERSION
. "$(dirname "$0")/../tools/check.sh"
cc=$1 version=$2
need "$cc"

cat >"$work/version.c" <<'C'
#include "netio.h"
#include <stdio.h>
#include <string.h>
int main(void)
{
    char numbers[64];
    snprintf(numbers, sizeof numbers, "%d.%d.%d", NETIO_VERSION_MAJOR, NETIO_VERSION_MINOR,
             NETIO_VERSION_PATCH);
    printf("NETIO_VERSION %s, numbers %s, CMake %s\n", NETIO_VERSION, numbers, CMAKE_VERSION);
    return strcmp(numbers, NETIO_VERSION) != 0 || strcmp(numbers, CMAKE_VERSION) != 0;
}
C
try "it compiles" "$cc" -I"$root" "-DCMAKE_VERSION=\"$version\"" "$work/version.c" -o "$work/a"
try "header and CMake agree" "$work/a"
finish
