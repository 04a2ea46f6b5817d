# Sourced by the scripts of this folder: check.sh, and the quickest means to each end.
#
#     $lint $lintxx     compilers that only read the source: clang takes a third of gcc's time and,
#                       unlike gcc, finds unused functions with -fsyntax-only
#     $quick            builds what only has to link and run: tcc takes a hundredth of gcc's time
#     tls_of COMPILER   sets $tls to the switch for the TLS library that it has headers of
. "$(dirname "$0")/../tools/check.sh"
here=$root/tests/compile

# use_kit C-COMPILER C++-COMPILER: these, where there is nothing quicker.
use_kit()
{
    lint="$1 -c -o $work/lint.o" lintxx="$2 -x c++ -c -o $work/lint.o" quick=$1
    if command -v clang >/dev/null 2>&1; then lint="clang -fsyntax-only"; fi
    if command -v clang++ >/dev/null 2>&1; then lintxx="clang++ -x c++ -fsyntax-only"; fi
    if command -v tcc >/dev/null 2>&1; then quick=tcc; fi
}

tls_of()
{
    tls=-DNETIO_TLS_NONE
    echo '#include <openssl/ssl.h>' >"$work/has_tls.c"
    if "$@" -fsyntax-only "$work/has_tls.c" >/dev/null 2>&1; then
        tls=-DNETIO_TLS_OPENSSL
    else
        echo "$* has no headers of OpenSSL: netio_tls.h with NETIO_TLS_NONE"
    fi
}
