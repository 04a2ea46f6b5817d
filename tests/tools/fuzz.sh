#!/bin/sh
# One fuzzer under libFuzzer for some seconds, with ASan and UBSan: fuzz.sh SOURCE SECONDS [OBJECT]
# The object is netio's implementation, compiled for this already (see matrix.cmake).
. "$(dirname "$0")/check.sh"
source=$1 seconds=$2 impl=${3:-}
name=$(basename "$source" .c)
need clang

flags="-g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -DNETIO_LIBFUZZER"
echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return (int)n * 0 + (d == 0) * 0; }' \
    >"$work/probe.c"
clang $flags "$work/probe.c" -o "$work/probe" 2>"$work/probe.log" ||
    skip "clang has no libFuzzer here (libclang-rt-dev)"

echo '#define NETIO_IMPLEMENTATION
#include "netio.h"' >"$work/impl.c"
[ -f "$impl" ] || impl=$work/impl.c
try "it compiles with libFuzzer" clang $flags -I"$root" "$source" "$impl" -o "$work/fuzz" -pthread
try "it compiles alone" clang -I"$root" "$source" "$work/impl.c" -o "$work/alone" -pthread
mkdir "$work/corpus"
try "it writes seeds" "$work/alone" --seeds "$work/corpus"
try "$seconds s of libFuzzer" "$work/fuzz" -max_total_time="$seconds" -max_len=512 -timeout=10 \
    -artifact_prefix="${NETIO_FUZZ_OUT:-$work}/$name-" "$work/corpus"
tail -n 2 "$work/log"
finish
