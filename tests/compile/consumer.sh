#!/bin/sh
# Another project gets netio by CMake, builds, and runs an echo over loopback: of TLS with a verified
# certificate or, where CMake does not find a TLS library, of TCP.
#
#     consumer.sh find_package|add_subdirectory|FetchContent [no-tls] VERSION CMAKE C-COMPILER
#     consumer.sh mingw VERSION CMAKE
#
# mingw: installed from this system and found by a cross build, which must link what Windows needs.
. "$(dirname "$0")/../tools/check.sh"
how=$1 tls=ON options="" run="" program=consumer
shift
if [ "$1" = no-tls ]; then
    tls=OFF options="-DCMAKE_DISABLE_FIND_PACKAGE_OpenSSL=ON"
    shift
fi
version=$1 cmake=$2 cc=${3:-}

if [ "$how" = mingw ]; then
    need x86_64-w64-mingw32-gcc wine
    how=find_package tls=OFF program=consumer.exe
    # This system's OpenSSL is not for Windows.
    options="-DCMAKE_SYSTEM_NAME=Windows -DCMAKE_DISABLE_FIND_PACKAGE_OpenSSL=ON"
    cc=x86_64-w64-mingw32-gcc
    . "$root/tests/tools/wine-env.sh"
    run=$wine
fi
said="^netio $version at 127.0.0.1:[0-9]*: hello"
if [ $tls = ON ]; then
    need openssl
    said="^netio $version, OpenSSL .*, TLSv1.3: hello"
    try "a certificate" openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -subj /CN=consumer.test -addext subjectAltName=DNS:consumer.test \
        -keyout "$work/key.pem" -out "$work/cert.pem"
fi

# A copy of the project: the build must not depend on where it lies.
cp -r "$root/tests/compile/consumer" "$work/project"
if [ "$how" = find_package ]; then
    # Installed without a TLS library: what matters is whether there is one where it is used.
    try "netio configures" "$cmake" -S "$root" -B "$work/netio" -DNETIO_BUILD_TESTS=OFF \
        -DNETIO_BUILD_EXAMPLES=OFF -DNETIO_BUILD_BENCH=OFF -DCMAKE_INSTALL_PREFIX="$work/prefix" \
        -DCMAKE_DISABLE_FIND_PACKAGE_OpenSSL=ON
    try "it says that it found none" grep -q 'netio::tls is left out' "$work/log"
    try "netio installs" "$cmake" --build "$work/netio" --target install
    try "the headers are there" [ -f "$work/prefix/include/netio.h" \
        -a -f "$work/prefix/include/netio_tls.h" ]
fi
if [ "$how" = add_subdirectory ]; then
    deny "another TLS library" "$cmake" -S "$root" -B "$work/other" -DNETIO_TLS_BACKEND=other
    try "it says which it knows" grep -q 'NETIO_TLS_BACKEND is other, can be OpenSSL' "$work/errors"
fi
try "the project configures" "$cmake" -S "$work/project" -B "$work/build" -DHOW="$how" \
    -DWANTED="$version" -DNETIO_SOURCE="$root" -DCMAKE_PREFIX_PATH="$work/prefix" -DTLS=$tls \
    -DCMAKE_C_COMPILER="$cc" $options
[ $tls = ON ] || try "it says that TLS is left out" grep -q 'netio::tls is left out' "$work/log"
try "the project builds" "$cmake" --build "$work/build"
try "the project runs" $run "$work/build/$program" "$work/cert.pem" "$work/key.pem"
tail -n 1 "$work/log"
try "what it says" grep -q "$said" "$work/log"
finish
