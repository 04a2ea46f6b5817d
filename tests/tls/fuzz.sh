#!/bin/sh
# fuzz_tls.c under libFuzzer with ASan and UBSan, each kind of input for some seconds.
#
#     fuzz.sh SECONDS        with the folder of certs.sh in NETIO_TEST_CERTS
. "$(dirname "$0")/../tools/check.sh"
seconds=$1
source=$root/tests/tls/fuzz_tls.c
need clang
[ -n "${NETIO_TEST_CERTS:-}" ] || skip "NETIO_TEST_CERTS names no directory that certs.sh made"

flags="-g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -DNETIO_LIBFUZZER"
echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return (int)n * 0 + (d == 0) * 0; }' \
    >"$work/probe.c"
clang $flags "$work/probe.c" -o "$work/probe" 2>"$work/probe.log" ||
    skip "clang has no libFuzzer here (libclang-rt-dev)"
try "it compiles with libFuzzer" clang $flags -I"$root" "$source" -o "$work/fuzz" -lssl -lcrypto \
    -pthread
try "it compiles alone" clang -I"$root" "$source" -o "$work/alone" -lssl -lcrypto -pthread
mkdir "$work/corpus"
try "it writes seeds" "$work/alone" --seeds "$work/corpus"
kind=0
for what in "client before the handshake" "server before the handshake" "client after it" \
    "server after it" certificates names; do
    mkdir "$work/corpus.$kind"
    NETIO_FUZZ_KIND=$kind
    export NETIO_FUZZ_KIND
    try "$what" "$work/fuzz" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
        -artifact_prefix="${NETIO_FUZZ_OUT:-$work}/tls-$kind-" "$work/corpus.$kind" "$work/corpus"
    echo "$what: $(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$work/log") runs"
    kind=$((kind + 1))
done
finish
