#!/bin/sh
# The programs in the headers' manuals, as somebody pastes them: they compile by the line above them,
# in C and C++20 (older C++ has no designated initialisers) and for Windows, without a warning, and
# do what they are for: one echoes, the other gets a page from a server that it can verify.
#
#     manual.sh C-COMPILER C++-COMPILER
. "$(dirname "$0")/kit.sh"
cc=$1 cxx=$2
need "$cc" awk
use_kit "$cc" "$cxx"
tls_of "$cc"

# program NAME HEADER: from the line that names the file to the brace that ends main.
program()
{
    awk -v name="^    // $1\\\\.c" '$0 ~ name { inside = 1 } inside { print substr($0, 5) }
        /^    int main/ { last = 1 } inside && last && /^    }/ { exit }' "$root/$2" >"$work/$1.c"
    try "there is a program in $2" grep -q 'int main' "$work/$1.c"
}
cp "$root/netio.h" "$root/netio_tls.h" "$work"
program echo netio.h
program get netio_tls.h

# warns FILE SWITCH...: without a warning in each language; Windows has no library for TLS here.
warns()
{
    file=$1
    for std in c99 c11 gnu17; do
        try "$file, $std: without a warning" $lint -std=$std $warnings "$work/$file.c"
    done
    if command -v "$cxx" >/dev/null 2>&1; then
        try "$file, c++20: without a warning" $lintxx -std=c++20 $warnings \
            -Wno-missing-field-initializers "$work/$file.c"
    fi
    if command -v x86_64-w64-mingw32-gcc >/dev/null 2>&1; then
        sed 's/NETIO_TLS_OPENSSL/NETIO_TLS_NONE/' "$work/$file.c" >"$work/windows.c"
        try "$file: for Windows" x86_64-w64-mingw32-gcc "$work/windows.c" -o "$work/a.exe" -lws2_32
    fi
}
warns echo
try "cc echo.c -o echo" "$cc" "$work/echo.c" -o "$work/echo"
if [ $tls = -DNETIO_TLS_OPENSSL ]; then
    warns get
    try "cc get.c -o get -lssl -lcrypto" "$cc" "$work/get.c" -o "$work/get" -lssl -lcrypto
fi

# On a free port instead of its own, so that tests may run side by side.
if ! command -v python3 >/dev/null 2>&1; then
    echo "skipped: no python3 to talk to them"
    finish
fi
cat >"$work/talk.py" <<'PY'
import socket, subprocess, sys, time
work, cc = sys.argv[1], sys.argv[2]
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
text = open(work + "/echo.c").read()
assert ":7777" in text
open(work + "/talk.c", "w").write(text.replace('":7777"', '"127.0.0.1:%d"' % port))
subprocess.check_call([cc, "-w", work + "/talk.c", "-o", work + "/talk", "-lpthread"])
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
try "it echoes" python3 "$work/talk.py" "$work" "$quick"

cat >"$work/serve.py" <<'PY'
import os, socket, ssl, subprocess, sys
work, cc = sys.argv[1], sys.argv[2]
listener = socket.create_server(("127.0.0.1", 0))
text = open(work + "/get.c").read()
assert "example.com:443" in text
open(work + "/fetch.c", "w").write(
    text.replace("example.com:443", "localhost:%d" % listener.getsockname()[1]))
subprocess.check_call([cc, "-w", work + "/fetch.c", "-o", work + "/fetch", "-lssl", "-lcrypto"])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(work + "/cert.pem", work + "/key.pem")
listener.settimeout(30)


def fetch(trusted):
    """What the program asked of a server whose certificate it trusts, or not; and its exit code."""
    program = subprocess.Popen([work + "/fetch"], env=dict(os.environ, SSL_CERT_FILE=trusted))
    asked = b""
    try:
        with context.wrap_socket(listener.accept()[0], server_side=True) as s:
            while b"\r\n\r\n" not in asked:
                asked += s.recv(4096)
            s.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
            s.unwrap()
    except OSError:
        pass
    return asked, program.wait(30)


assert fetch(work + "/cert.pem") == (b"GET / HTTP/1.0\r\n\r\n", 0)
assert fetch(os.devnull) == (b"", 1)
PY
if [ $tls = -DNETIO_TLS_OPENSSL ] && command -v openssl >/dev/null 2>&1; then
    try "a certificate" openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -keyout "$work/key.pem" -out "$work/cert.pem"
    try "it gets a page, from a trusted server alone" python3 "$work/serve.py" "$work" "$cc"
fi
finish
