#!/bin/sh
# The program in netio.h's manual, as somebody pastes it: it compiles by the line above it, in C and
# C++20 (older C++ has no designated initialisers) and for Windows, without a warning, and it echoes.
#
#     manual.sh C-COMPILER C++-COMPILER
. "$(dirname "$0")/../tools/check.sh"
cc=$1 cxx=$2
need "$cc" awk

# From the line that names the file to the brace that ends main.
awk '/^    \/\/ echo\.c/ { inside = 1 } inside { print substr($0, 5) } /^    int main/ { last = 1 }
    inside && last && /^    }/ { exit }' "$root/netio.h" >"$work/echo.c"
cp "$root/netio.h" "$work"
try "there is a program" grep -q 'int main' "$work/echo.c"
try "cc echo.c -o echo" "$cc" "$work/echo.c" -o "$work/echo"
for std in c99 c11 gnu17; do
    try "$std: without a warning" "$cc" -std=$std $warnings "$work/echo.c" -o "$work/echo" -pthread
done
if command -v "$cxx" >/dev/null 2>&1; then
    try "c++20: without a warning" "$cxx" -x c++ -std=c++20 $warnings \
        -Wno-missing-field-initializers "$work/echo.c" -o "$work/b" -pthread
fi
if command -v x86_64-w64-mingw32-gcc >/dev/null 2>&1; then
    try "gcc echo.c -lws2_32" x86_64-w64-mingw32-gcc "$work/echo.c" -o "$work/echo.exe" -lws2_32
fi

# On a free port instead of its own, so that tests may run side by side.
if command -v python3 >/dev/null 2>&1; then
    cat >"$work/talk.py" <<'PY'
import socket, subprocess, sys, time
work, cc = sys.argv[1], sys.argv[2]
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
text = open(work + "/echo.c").read()
assert ":7777" in text
open(work + "/talk.c", "w").write(text.replace('":7777"', '"127.0.0.1:%d"' % port))
subprocess.check_call([cc, work + "/talk.c", "-o", work + "/talk", "-pthread"])
server = subprocess.Popen([work + "/talk"])
try:
    for attempt in range(500):  # until it listens
        try:
            s = socket.create_connection(("127.0.0.1", port), 5)
            break
        except ConnectionRefusedError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.01)
    for message in b"hello", b"x" * 4096, b"\0":
        s.sendall(message)
        got = b""
        while len(got) < len(message):
            got += s.recv(65536)
        assert got == message
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""
finally:
    server.kill()
    server.wait()
PY
    try "it echoes" python3 "$work/talk.py" "$work" "$cc"
else
    echo "skipped: no python3 to talk to it"
fi
finish
