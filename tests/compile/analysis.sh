#!/bin/sh
# Static analysis of the implementation: the checks that find bugs, without those about taste.
#
#     analysis.sh clang-tidy|cppcheck|gcc
. "$(dirname "$0")/../tools/check.sh"
header=$root/tests/compile/header.c

case $1 in
clang-tidy)
    need clang-tidy
    # Not: easily-swappable-parameters and their like. The analyzer's complaint about memset and
    # strncpy ("insecure API") wants functions of Annex K, which nobody has.
    checks="-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.*,bugprone-*,cert-err34-c"
    checks="$checks,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier"
    checks="$checks,-bugprone-narrowing-conversions,-bugprone-assignment-in-if-condition"
    checks="$checks,-bugprone-branch-clone,-bugprone-implicit-widening-of-multiplication-result"
    checks="$checks,misc-redundant-expression,misc-unused-alias-decls,performance-no-int-to-ptr"
    checks="$checks,-performance-no-int-to-ptr"
    try "clang-tidy" clang-tidy --quiet --warnings-as-errors='*' --header-filter='netio\.h' \
        --checks="$checks" "$header" -- -std=c99 -DNETIO_IMPLEMENTATION -I"$root"
    ;;
cppcheck)
    need cppcheck
    # The bugs of one file at a time; what the file does not use is the user's to use.
    try "cppcheck" cppcheck --quiet --error-exitcode=1 --std=c99 --inline-suppr \
        --enable=warning,portability --suppress=missingIncludeSystem \
        -D__linux__ -D__GNUC__=12 -D__GLIBC__=2 -D_GNU_SOURCE -DNETIO_IMPLEMENTATION -I"$root" \
        "$header"
    ;;
gcc)
    need gcc
    try "gcc -fanalyzer" gcc -std=c99 -O1 -fanalyzer -Werror -DNETIO_IMPLEMENTATION -I"$root" \
        -c "$header" -o "$work/o"
    ;;
esac
finish
