#!/bin/sh
# Static analysis of the implementation: the checks that find bugs, without those about taste.
#
#     analysis.sh clang-tidy|cppcheck
. "$(dirname "$0")/kit.sh"
header=$here/tls.c

case $1 in
clang-tidy)
    need clang-tidy clang
    tls_of clang
    # Left out: taste (easily swappable parameters, padding of structs), and the analyzer's wish for
    # the functions of Annex K ("insecure API"), which nobody has.
    checks="-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.*,bugprone-*,cert-err34-c"
    checks="$checks,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier"
    checks="$checks,-bugprone-narrowing-conversions,-bugprone-assignment-in-if-condition"
    checks="$checks,-bugprone-branch-clone,-bugprone-implicit-widening-of-multiplication-result"
    checks="$checks,-clang-analyzer-optin.performance.Padding,misc-redundant-expression"
    try "clang-tidy" clang-tidy --quiet --warnings-as-errors='*' \
        --header-filter='netio(_tls)?\.h' --checks="$checks" "$header" \
        -- -std=c99 $tls -DNETIO_IMPLEMENTATION -I"$root"
    ;;
cppcheck)
    need cppcheck
    # Without its "uninitialized variable", which takes every array that a call fills for one: the
    # compilers and valgrind look for those.
    try "cppcheck" cppcheck --quiet --error-exitcode=1 --std=c99 --inline-suppr \
        --enable=warning,portability --suppress=missingIncludeSystem \
        --suppress=uninitvar --suppress=legacyUninitvar \
        -D__linux__ -D__GNUC__=12 -D__x86_64__ -DNETIO_TLS_OPENSSL -DNETIO_IMPLEMENTATION \
        -I"$root" "$header"
    ;;
esac
finish
