#!/bin/sh
# Where the implementation may stand. With the compiler's own default (gnu) mode: anywhere. In a
# strict mode glibc decides at the first system header what it shows (the declarations include
# <stdint.h>, which is one), so after one it is too late: netio.h then stops with one #error that
# says what to do, not with a hundred undeclared names. The two headers go in any order.
. "$(dirname "$0")/kit.sh"
cc=$1
need "$cc"
tls_of "$cc"

# file NAME LINE...: a program of these lines. I: from here on the implementation is wanted.
file()
{
    name=$1
    shift
    for line; do
        case $line in
        I) echo '#define NETIO_IMPLEMENTATION' ;;
        netio*) echo "#include \"$line\"" ;;
        *.h) echo "#include <$line>" ;;
        *) echo "#define $line" ;;
        esac
    done >"$work/$name.c"
    echo 'int main(void) { return netio_strerror(0) == 0; }' >>"$work/$name.c"
}
file early I netio.h stdio.h
file late stdio.h I netio.h
# The declarations first, as some header of the program has them; then the code.
file twice netio.h I netio.h netio.h
# A program that asked for the full interface by itself.
file asked _GNU_SOURCE stdio.h I netio.h
file tls-early I netio_tls.h stdio.h
file tls-second I netio.h netio_tls.h
file tls-first I netio_tls.h netio.h
file tls-late netio.h stdio.h I netio_tls.h
file tls-twice netio_tls.h I netio_tls.h netio_tls.h netio.h
file tls-declared netio_tls.h netio.h I netio.h
early="early asked tls-early tls-second tls-first"
late="late twice tls-late tls-twice tls-declared"
if [ $tls = -DNETIO_TLS_OPENSSL ]; then
    file ssl-late openssl/ssl.h I netio_tls.h
    file ssl-early I netio_tls.h openssl/ssl.h openssl/x509.h
    early="$early ssl-early" late="$late ssl-late"
fi

compiles()
{
    try "$1: $2" "$cc" -std=$1 -Werror $tls -I"$root" -fsyntax-only "$work/$2.c"
}
for std in gnu99 gnu17; do
    for file in $early $late; do compiles $std $file; done
done
for std in c99 c17; do
    for file in $early; do compiles $std $file; done
done

# Too late is glibc's business: other C libraries decide in each header anew.
glibc=no
echo '#include <features.h>' | "$cc" -E -dM - 2>/dev/null | grep -q __GLIBC__ && glibc=yes
for std in c99 c17; do
    for file in $late; do
        if [ $glibc = no ]; then
            compiles $std $file
            continue
        fi
        deny "$std: $file" "$cc" -std=$std $tls -I"$root" -fsyntax-only "$work/$file.c"
        errors=$(grep -c 'error:' "$work/errors")
        try "$std: $file: one #error and nothing else ($errors)" [ "$errors" = 1 ]
        try "$std: $file: it is netio.h's own" grep -q 'netio\.h:.*error: .*netio\.h: ' "$work/errors"
    done
done

# Nobody has TLS by accident, or none: the choice is the program's.
for std in c99 gnu17; do
    deny "$std: no TLS library named" "$cc" -std=$std -I"$root" -fsyntax-only "$work/tls-early.c"
    try "$std: netio_tls.h says which there are" \
        grep -q 'netio_tls\.h:.*error: .*NETIO_TLS_OPENSSL.*NETIO_TLS_NONE' "$work/errors"
    try "$std: and nothing else" [ "$(grep -c 'error:' "$work/errors")" = 1 ]
done
finish
