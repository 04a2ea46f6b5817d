#!/bin/sh
# Build netio's tests and run all of them:
#
#     sh tests/run.sh              everything; as root on Debian it installs what is missing
#     sh tests/run.sh --quick      this machine's compiler only: for daily work
#     sh tests/run.sh -R poller    further arguments go to ctest
#
# NETIO_BUILD_DIR says where to build; otherwise build/ beside this folder or, where that cannot be
# written, a folder in TMPDIR. CC chooses the compiler. The last line is ctest's own verdict.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
quick=""
if [ "${1:-}" = --quick ]; then
    quick=--quick
    shift
fi
case ${1:-} in
-h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

build=${NETIO_BUILD_DIR:-$root/build}
if ! mkdir -p "$build" 2>/dev/null || [ ! -w "$build" ]; then
    [ -z "${NETIO_BUILD_DIR:-}" ] || { echo "cannot write to $build" >&2; exit 1; }
    build=${TMPDIR:-/tmp}/netio-build-$(id -u)
    mkdir -p "$build" || exit 1
fi
build=$(cd "$build" && pwd)
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
began=$(date +%s)
step()
{
    echo "== $* ($(($(date +%s) - began)) s)"
}

# --- tools -----------------------------------------------------------------------------------------

step "tools"
sh "$root/tests/tools/packages.sh" $quick </dev/null || exit 1

# zig brings the headers of macOS, the BSDs and Windows on ARM. It goes into the build folder, so
# that nothing of the machine's Python changes.
if [ -z "$quick" ] && [ -z "${NETIO_ZIG:-}" ]; then
    if [ -x "$build/zig/ziglang/zig" ]; then
        NETIO_ZIG=$build/zig/ziglang/zig
    elif command -v zig >/dev/null 2>&1; then
        NETIO_ZIG=$(command -v zig)
    elif command -v python3 >/dev/null 2>&1; then
        NETIO_ZIG=$(python3 -c 'import os, ziglang
print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))' 2>/dev/null)
        if [ ! -x "$NETIO_ZIG" ]; then
            echo "installing zig (pip package ziglang) into $build/zig"
            python3 -m pip install --quiet --target "$build/zig" 'ziglang>=0.15' \
                >"$build/zig.log" 2>&1 </dev/null ||
                { tail -n 3 "$build/zig.log"; echo "no zig: tests that need it are skipped"; }
            NETIO_ZIG=$build/zig/ziglang/zig
        fi
    fi
    export NETIO_ZIG
fi

# Two witnesses that Debian does not have, likewise.
if [ -z "$quick" ] && command -v python3 >/dev/null 2>&1; then
    export PYTHONPATH="$build/python${PYTHONPATH:+:$PYTHONPATH}"
    for module in cobs sliplib; do
        python3 -c "import $module" 2>/dev/null && continue
        echo "installing $module (pip package) into $build/python"
        python3 -m pip install --quiet --target "$build/python" $module \
            >"$build/python.log" 2>&1 </dev/null ||
            { tail -n 3 "$build/python.log"; echo "no $module: tests that need it are skipped"; }
    done
fi

# --- build -----------------------------------------------------------------------------------------

# A build folder that belongs to another copy of the sources is begun anew.
cache=$build/CMakeCache.txt
if [ -f "$cache" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$cache"; then
    rm -rf "$cache" "$build/CMakeFiles"
fi
generator=""
if [ ! -f "$cache" ] && command -v ninja >/dev/null 2>&1; then
    generator="-G Ninja"
fi
matrix=ON
[ -z "$quick" ] || matrix=OFF

# Without optimisation, as every example compiles the whole header; the matrix has the rest.
step "configure in $build"
if ! cmake -S "$root" -B "$build" $generator -DCMAKE_BUILD_TYPE=Debug \
    -DNETIO_TEST_MATRIX=$matrix -DNETIO_BUILD_TESTS=ON -DNETIO_BUILD_EXAMPLES=ON \
    >"$build/configure.log" 2>&1 </dev/null; then
    cat "$build/configure.log"
    exit 1
fi

# It goes on after an error, so that one broken program is one failed test and not the end.
step "build"
keep_going=-k
grep -q '^CMAKE_GENERATOR:INTERNAL=Ninja' "$cache" && keep_going="-k 0"
built=0
cmake --build "$build" --parallel "$jobs" -- $keep_going >"$build/build.log" 2>&1 </dev/null || built=$?
grep -E 'warning:|error:|undefined reference|^FAILED:' "$build/build.log" |
    grep -v 'statically linked applications requires' | head -n 60

# --- run -------------------------------------------------------------------------------------------

# Most tests wait for something, so more of them run at once than there are processors. Some look at
# the clock, so one that fails gets another try, two at most, and is named below.
step "test"
again="--repeat until-pass:3"
ctest --help | grep -q until-pass || again="" # before CMake 3.17
{
    cd "$build" && ctest --output-on-failure --timeout 300 $again -j "$((jobs * 2))" \
        --no-tests=error "$@" </dev/null
    echo $? >"$build/ctest.status"
} 2>&1 | tee "$build/ctest.log"
status=$(cat "$build/ctest.status")

# What was skipped and why: whole entries, and single checks inside entries that passed.
sh "$root/tests/tools/skipped.sh" "$build"
awk '/ Test +#[0-9]+: .*\*\*\*/ { sub(/.*#[0-9]+: /, ""); failed[$1] = 1 }
     / Test +#[0-9]+: .* Passed / { sub(/.*#[0-9]+: /, ""); if ($1 in failed) print $1 }' \
    "$build/ctest.log" | sort -u >"$build/again.log"
[ ! -s "$build/again.log" ] || { echo "passed at a later try:"; sed 's/^/    /' "$build/again.log"; }
if [ $built -ne 0 ]; then
    echo "The build had errors: $build/build.log"
    [ "$status" -ne 0 ] || status=1
fi
step "done"
grep -E '^[0-9]+% tests passed' "$build/ctest.log"
exit "$status"
