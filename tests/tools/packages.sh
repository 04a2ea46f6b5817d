#!/bin/sh
# Get what the tests need: packages.sh [--quick]
#
# As root on Debian (or Ubuntu) missing packages are installed; anything else says what is missing
# and how to get it. Fails only if the tests cannot be built at all. --quick: the least that builds.
set -u
quick=${1:-}

# package                    command it brings ("-": none)    what the tests use it for
table() {
    cat <<'T'
gcc                          gcc                              a C compiler
libc6-dev                    -                                C headers
make                         make                             building
cmake                        cmake                            building
T
    [ "$quick" = --quick ] || cat <<'T'
g++                          g++                              the header in C++
ninja-build                  ninja                            building, faster
clang                        clang                            a second compiler
libclang-rt-dev              -                                fuzzing
clang-tidy                   clang-tidy                       analysis
cppcheck                     cppcheck                         analysis
valgrind                     valgrind                         memory, descriptors
strace                       strace                           what the kernel saw
musl-tools                   musl-gcc                         a second C library
tcc                          tcc                              a third compiler
gcc-i686-linux-gnu           i686-linux-gnu-gcc               32 bits
libc6-dev-i386-cross         -                                32 bits
gcc-s390x-linux-gnu          s390x-linux-gnu-gcc              big-endian
libc6-dev-s390x-cross        -                                big-endian
gcc-arm-linux-gnueabihf      arm-linux-gnueabihf-gcc          ARM, 32 bits
libc6-dev-armhf-cross        -                                ARM, 32 bits
gcc-aarch64-linux-gnu        aarch64-linux-gnu-gcc            ARM, 64 bits
libc6-dev-arm64-cross        -                                ARM, 64 bits
qemu-user                    qemu-s390x                       running those
gcc-mingw-w64-x86-64         x86_64-w64-mingw32-gcc           Windows
g++-mingw-w64-x86-64         x86_64-w64-mingw32-g++           Windows, C++
wine                         wine                             running Windows programs
wine64                       -                                running Windows programs
python3                      python3                          the other end of the wire
python3-pip                  -                                zig, cobs, sliplib
python3-protobuf             -                                a witness for varints
python3-h11                  -                                a witness for HTTP
python3-wsproto              -                                a witness for WebSocket
python3-websockets           -                                another WebSocket
nodejs                       node                             another WebSocket
node-ws                      -                                another WebSocket
chromium                     chromium                         a browser, for ws_chat's page
chromium-driver              chromedriver                     driving it
haproxy                      haproxy                          the PROXY protocol
microsocks                   microsocks                       a SOCKS5 proxy
tinyproxy                    tinyproxy                        an HTTP proxy
iproute2                     ip                               networks of our own, ss
nftables                     nft                              faults in them
util-linux                   unshare                          namespaces without root
procps                       ps                               looking at processes
socat                        socat                            the other end of the wire
ncat                         ncat                             the other end of the wire
netcat-openbsd               nc                               the other end of the wire
curl                         curl                             the other end of the wire
openssl                      openssl                          certificates, a TLS port for netdiag
libssl-dev                   -                                a library for netio_tls.h
gnutls-bin                   gnutls-cli                       another TLS
stunnel4                     stunnel                          TLS in front of others
sslscan                      sslscan                          what others make of our TLS
testssl.sh                   testssl                          what others make of our TLS
nmap                         nmap                             what others make of our TLS
nginx-light                  nginx                            another HTTP server
wrk                          wrk                              load on http_server
redis-server                 redis-server                     another Redis
redis-tools                  redis-cli                        another Redis
coturn                       turnserver                       another STUN
tcpdump                      tcpdump                          reading captures
iputils-ping                 ping                             a witness for ping
T
}

installed()
{
    dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}

debian_root()
{
    [ -f /etc/debian_version ] && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]
}

missing=""
if debian_root; then
    # A command from elsewhere is as good as the package's.
    while read -r package command use; do
        if [ "$command" != - ] && command -v "$command" >/dev/null 2>&1; then continue; fi
        installed "$package" || missing="$missing $package"
    done <<T
$(table)
T
    if [ -n "$missing" ]; then
        echo "installing:$missing"
        export DEBIAN_FRONTEND=noninteractive
        log=$(mktemp "${TMPDIR:-/tmp}/netio-apt.XXXXXX")
        install="apt-get install -y --no-install-recommends"
        if ! { apt-get update && $install $missing; } >"$log" 2>&1 </dev/null; then
            tail -n 20 "$log" >&2
            echo "that did not work in one piece; trying one by one" >&2
            for package in $missing; do
                $install "$package" >"$log" 2>&1 </dev/null || echo "no $package" >&2
            done
        fi
        rm -f "$log"
    fi
else
    while read -r package command use; do
        [ "$command" = - ] || command -v "$command" >/dev/null 2>&1 ||
            missing="$missing
    $command ($use; Debian package: $package)"
    done <<T
$(table)
T
    if [ -n "$missing" ]; then
        echo "Not here, so tests that need them are skipped:$missing"
        echo "On Debian and Ubuntu this gets all of them:"
        echo "    sudo apt-get install --no-install-recommends" $(table | awk '{ print $1 }')
    fi
fi

# What nothing goes without.
for need in "cc gcc clang" cmake "make ninja"; do
    found=no
    for command in $need; do
        command -v "$command" >/dev/null 2>&1 && found=yes
    done
    if [ "$found" = no ]; then
        echo "The tests cannot be built without one of: $need" >&2
        exit 1
    fi
done
