#!/bin/sh
# Where the implementation may stand. With the compiler's own default (gnu) mode: anywhere. In a
# strict mode glibc decides at the first system header what it shows (the declarations include
# <stdint.h>, which is one), so after one it is too late: netio.h then stops with one #error that
# says what to do, not with a hundred undeclared names.
. "$(dirname "$0")/../tools/check.sh"
cc=$1
need "$cc"

cat >"$work/late.c" <<'C'
#include <stdio.h>
#define NETIO_IMPLEMENTATION
#include "netio.h"
int main(void) { return printf("%s", netio_strerror(0)) < 0; }
C
cat >"$work/early.c" <<'C'
#define NETIO_IMPLEMENTATION
#include "netio.h"
#include <stdio.h>
int main(void) { return printf("%s", netio_strerror(0)) < 0; }
C
# The declarations first, as some header of the program has them; then the code.
cat >"$work/twice.c" <<'C'
#include "netio.h"
#define NETIO_IMPLEMENTATION
#include "netio.h"
#include "netio.h"
int main(void) { return netio_strerror(0) == 0; }
C
# A program that asked for the full interface by itself.
cat >"$work/asked.c" <<'C'
#define _GNU_SOURCE
#include <stdio.h>
#define NETIO_IMPLEMENTATION
#include "netio.h"
int main(void) { return printf("%s", netio_strerror(0)) < 0; }
C

runs()
{
    try "$1: $2" "$cc" -std=$1 $warnings -I"$root" "$work/$2.c" -o "$work/a" -pthread
    try "$1: $2 runs" "$work/a"
}
for std in gnu99 gnu17; do
    for file in late early twice asked; do runs $std $file; done
done
for std in c99 c17; do
    for file in early asked; do runs $std $file; done
done

# Too late is glibc's business: other C libraries decide in each header anew.
glibc=no
echo '#include <features.h>' | "$cc" -E -dM - 2>/dev/null | grep -q __GLIBC__ && glibc=yes
for std in c99 c17; do
    for file in late twice; do
        if [ $glibc = no ]; then
            runs $std $file
            continue
        fi
        deny "$std: $file" "$cc" -std=$std -I"$root" -c "$work/$file.c" -o "$work/o"
        errors=$(grep -c 'error:' "$work/errors")
        try "$std: $file: one #error and nothing else ($errors)" [ "$errors" = 1 ]
        try "$std: $file: it is netio.h's own" grep -q 'netio\.h:.*error: .*netio\.h: ' "$work/errors"
    done
done
finish
