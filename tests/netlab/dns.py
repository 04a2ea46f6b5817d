#!/usr/bin/env python3
"""A name server for tests, on UDP port 53 of an address: good.test has addresses, bad.test fails,
mute.test is not answered, everything else does not exist.

  dns.py ADDRESS
"""
import socket
import struct
import sys

A, AAAA = 1, 28
SERVFAIL, NXDOMAIN = 2, 3
HOSTS = {(b"\4good\4test", A): [socket.inet_aton("10.200.0.2")],
         (b"\4good\4test", AAAA): [socket.inet_pton(socket.AF_INET6, "fd20::2")]}


def answer(query):
    name_end = query.index(0, 12)
    name = query[12:name_end].lower()
    kind, = struct.unpack("!H", query[name_end + 1:name_end + 3])
    if name == b"\4mute\4test":
        return None
    code = 0 if name == b"\4good\4test" else SERVFAIL if name == b"\3bad\4test" else NXDOMAIN
    data = HOSTS.get((name, kind), [])
    # RFC 1035 section 4.1: an answer, recursion available; then the question as it came.
    out = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(data), 0, 0)
    out += query[12:name_end + 5]
    for ip in data:
        out += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(ip)) + ip
    return out


def main():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((sys.argv[1], 53))
    print("listening", flush=True)
    while True:
        query, name = s.recvfrom(512)
        out = answer(query)
        if out:
            s.sendto(out, name)


if __name__ == "__main__":
    main()
