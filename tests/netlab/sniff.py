#!/usr/bin/env python3
"""Print each connection attempt (TCP SYN) that leaves by a device: milliseconds since the first
one, and where it goes.

  sniff.py DEVICE
"""
import socket
import struct
import sys

ALL, OUTGOING = 3, 4
TIMESTAMPNS = 35
SYN, ACK = 2, 16


def connection(packet):
    """Where a SYN goes, and its source port; or None."""
    if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP:
        tcp, host = packet[4 * (packet[0] & 15):], socket.inet_ntop(socket.AF_INET, packet[16:20])
    elif packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_TCP:
        tcp, host = packet[40:], "[%s]" % socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return None
    source, port = struct.unpack("!HH", tcp[:4])
    return ("%s:%d" % (host, port), source) if tcp[13] & (SYN | ACK) == SYN else None


def main():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL))
    s.setsockopt(socket.SOL_SOCKET, TIMESTAMPNS, 1)  # when it was, not when we were woken
    s.bind((sys.argv[1], ALL))
    print("listening", flush=True)
    first, seen = None, set()
    while True:
        packet, extra, _, name = s.recvmsg(200, 100)
        found = connection(packet) if name[2] == OUTGOING and len(packet) >= 40 else None
        if not found or found in seen:  # a SYN that is sent again
            continue
        seen.add(found)
        seconds, nanoseconds = struct.unpack("ll", extra[0][2])
        ms = seconds * 1000 + nanoseconds // 1000000
        first = first or ms
        print("%d %s" % (ms - first, found[0]), flush=True)


if __name__ == "__main__":
    main()
