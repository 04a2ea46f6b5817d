#!/bin/sh
# Compile examples/quickstart.c with nothing but a C compiler, and run it: `sh examples/run.sh`.
# CC chooses the compiler. Arguments go to the program.
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 1

find_compiler()
{
    for compiler in ${CC:-} cc gcc clang tcc; do
        command -v "$compiler" >/dev/null 2>&1 && echo "$compiler" && return
    done
    return 1
}

# A compiler without the C library's headers is as good as none.
complete()
{
    echo 'int main(void) { return 0; }' >"$work/try.c" &&
        echo '#include <stdlib.h>' >>"$work/try.c" &&
        "$1" "$work/try.c" -o "$work/try" 2>/dev/null
}

work=$(mktemp -d "${TMPDIR:-/tmp}/netio-quickstart.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

if ! cc=$(find_compiler) || ! complete "$cc"; then
    if [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
        echo "No C compiler here: installing gcc and libc6-dev."
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; } \
            >"$work/apt.log" 2>&1 </dev/null || { cat "$work/apt.log" >&2; exit 1; }
    else
        echo "No C compiler here. Get one, then run this again:" >&2
        echo "    Debian, Ubuntu   sudo apt-get install gcc libc6-dev" >&2
        echo "    Fedora           sudo dnf install gcc" >&2
        echo "    Arch             sudo pacman -S gcc" >&2
        echo "    Alpine           sudo apk add gcc musl-dev" >&2
        echo "    macOS            xcode-select --install" >&2
        echo "    FreeBSD          has cc; see that it is in the PATH" >&2
        exit 1
    fi
    cc=$(find_compiler) || { echo "There is still no C compiler in the PATH." >&2; exit 1; }
fi

# Before glibc 2.34 threads are a library of their own; -pthread is harmless elsewhere.
echo "\$ $cc quickstart.c -o quickstart"
"$cc" "$here/quickstart.c" -o "$work/quickstart" 2>"$work/cc.log" ||
    "$cc" "$here/quickstart.c" -o "$work/quickstart" -pthread ||
    exit 1
cat "$work/cc.log" >&2

"$work/quickstart" "$@"
