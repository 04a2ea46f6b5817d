#!/bin/sh
# Another project gets netio by CMake, builds, and runs an echo over loopback.
#
#     consumer.sh find_package|add_subdirectory|FetchContent|mingw VERSION CMAKE C-COMPILER
#
# mingw: installed from this system and found by a cross build, which must link what Windows needs.
. "$(dirname "$0")/../tools/check.sh"
how=$1 version=$2 cmake=$3 cc=$4
cross="" run="" program=consumer

if [ "$how" = mingw ]; then
    need x86_64-w64-mingw32-gcc wine
    how=find_package program=consumer.exe
    cross="-DCMAKE_SYSTEM_NAME=Windows"
    cc=x86_64-w64-mingw32-gcc
    . "$root/tests/tools/wine-env.sh"
    run=$wine
fi

# A copy of the project: the build must not depend on where it lies.
cp -r "$root/tests/compile/consumer" "$work/project"
if [ "$how" = find_package ]; then
    try "netio configures" "$cmake" -S "$root" -B "$work/netio" -DNETIO_BUILD_TESTS=OFF \
        -DNETIO_BUILD_EXAMPLES=OFF -DNETIO_BUILD_BENCH=OFF -DCMAKE_INSTALL_PREFIX="$work/prefix"
    try "netio installs" "$cmake" --build "$work/netio" --target install
    try "the header is there" [ -f "$work/prefix/include/netio.h" ]
fi
try "the project configures" "$cmake" -S "$work/project" -B "$work/build" -DHOW="$how" \
    -DWANTED="$version" -DNETIO_SOURCE="$root" -DCMAKE_PREFIX_PATH="$work/prefix" \
    -DCMAKE_C_COMPILER="$cc" $cross
try "the project builds" "$cmake" --build "$work/build"
try "the project runs" $run "$work/build/$program"
tail -n 1 "$work/log"
try "what it says" grep -q "^netio $version at 127.0.0.1:[0-9]*: hello" "$work/log"
finish
