#!/usr/bin/env python3
"""Drives examples/apps/ws_chat.c: the handshake and frames byte by byte, its rooms and limits, its
client, with npm's ws, Python's websockets, curl, and the page in two Chromiums."""
import base64
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

from common import (Run, SOURCE, Skip, WINE, certs, check, check_equal, cpu_seconds, fact, folder,
                    in_thread, main, memory_kib, native, need_ipv6, no_tls, path, program,
                    receive_all, run, tool)

PROGRAM = program("ws_chat")
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455


def server(*options, **more):
    return Run([PROGRAM] + [str(o) for o in options] + ["127.0.0.1:0"], **more)


def chatter(p, name="ann", query="", scheme="ws", host="127.0.0.1", options=()):
    """The program as a client."""
    url = "%s://%s:%d/ws%s" % (scheme, host, p.port(), query)
    return Run([PROGRAM, "connect"] + list(options) + [url, name])


# --- HTTP by hand ---

def exchange(p, request, half_close=False):
    """Send these bytes; the status, fields and body of what comes until the end."""
    with socket.create_connection(("127.0.0.1", p.port())) as s:
        s.sendall(request)
        if half_close:
            s.shutdown(socket.SHUT_WR)
        data = receive_all(s)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    check(re.match(r"HTTP/1\.1 \d{3} ", first), "no answer: %r" % data[:100])
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def request(target="/ws", method="GET", **fields):
    """A request for a WebSocket; a field of None is left out."""
    all_fields = {"Host": "a.example", "Upgrade": "websocket", "Connection": "Upgrade",
                  "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": KEY}
    all_fields.update(fields)
    lines = ["%s: %s" % (k.replace("_", "-"), v) for k, v in all_fields.items() if v is not None]
    return ("%s %s HTTP/1.1\r\n%s\r\n\r\n" % (method, target, "\r\n".join(lines))).encode()


# --- WebSocket by hand ---

def frame(opcode, payload=b"", fin=1, rsv=0, masked=True, size=None, wide=0):
    """`size`: the length that is claimed; `wide`: 2 or 8 bytes for it, needed or not."""
    if isinstance(payload, str):
        payload = payload.encode()
    size = len(payload) if size is None else size
    out = bytes([fin << 7 | rsv << 4 | opcode])
    mask = 128 if masked else 0
    if wide == 8 or size > 65535:
        out += bytes([mask | 127]) + struct.pack("!Q", size)
    elif wide == 2 or size > 125:
        out += bytes([mask | 126]) + struct.pack("!H", size)
    else:
        out += bytes([mask | size])
    if not masked:
        return out + payload
    key = os.urandom(4)
    pad = int.from_bytes((key * (len(payload) // 4 + 1))[:len(payload)], "big")
    return out + key + (int.from_bytes(payload, "big") ^ pad).to_bytes(len(payload), "big")


class Peer:
    """A browser's side, by hand. Answers pings unless told not to."""

    def __init__(self, p, name="", room="", pong=True, hello=True, receive=None, tls=None,
                 **fields):
        self.s = socket.socket()
        if receive:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.s.settimeout(20)
        self.s.connect(("127.0.0.1", p.port()))
        if tls:
            self.s = tls.wrap_socket(self.s, server_hostname="127.0.0.1")
        self.pong = pong
        self.buffer = b""
        self.s.sendall(request("/ws?room=%s&name=%s" % (room, name), **fields))
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        self.head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        check(self.head.startswith(b"HTTP/1.1 101 "), "no 101: %r" % self.head)
        if hello and name:
            self.until(r"\* you are %s in %s" % (name, room or "lobby"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def more(self):
        data = self.s.recv(1 << 16)
        check(data, "the stream ended after %r" % self.buffer[-100:])
        self.buffer += data

    def need(self, size):
        while len(self.buffer) < size:
            self.more()

    def frame(self):
        """The next frame: its type and payload. A server's is whole, not masked, and short."""
        self.need(2)
        first, size = self.buffer[0], self.buffer[1]
        check(first & 0x80 and not first & 0x70, "flags %02x" % first)
        check(size < 128, "a server masks")
        at = {126: 4, 127: 10}.get(size, 2)
        self.need(at)
        if at > 2:
            size = int.from_bytes(self.buffer[2:at], "big")
            check(size > (125 if at == 4 else 65535), "length %d in %d bytes" % (size, at - 2))
        self.need(at + size)
        payload, self.buffer = self.buffer[at:at + size], self.buffer[at + size:]
        if first & 15 == PING and self.pong:
            self.s.sendall(frame(PONG, payload))
            return self.frame()
        return first & 15, payload

    def says(self, text):
        self.s.sendall(frame(TEXT, text))

    def text(self):
        kind, payload = self.frame()
        check_equal(TEXT, kind, "type of %r" % payload[:100])
        return payload.decode()

    def hears(self, *lines):
        for want in lines:
            check_equal(want, self.text(), "message")

    def until(self, pattern):
        while True:
            text = self.text()
            if re.fullmatch(pattern, text):
                return text

    def closed(self, code, reason=None):
        """The next frame closes with this code; behind it the stream ends."""
        kind, payload = self.frame()
        check_equal((CLOSE, code), (kind, struct.unpack("!H", payload[:2])[0]), "close frame")
        if reason is not None:
            check_equal(reason, payload[2:].decode(), "reason")
        self.s.sendall(frame(CLOSE, payload[:2]))
        self.ended()
        self.s.close()

    def ended(self):
        check_equal(b"", self.buffer + receive_all(self.s), "what follows the close frame")


def stop(p, peer):
    """End the server; it waits for the last of its clients, this one."""
    p.process.send_signal(signal.SIGTERM)
    kind, payload = peer.frame()
    while kind == TEXT:  # the others leave
        kind, payload = peer.frame()
    check_equal((CLOSE, b"\x03\xe9"), (kind, payload[:2]), "the last frame")
    peer.s.close()
    check_equal(0, p.wait(), "exit code")


# --- the page and the handshake ---

@fact
def the_page_and_what_it_needs_are_served():
    with server() as p:
        status, fields, body = exchange(p, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        check_equal(200, status, "status")
        check_equal("text/html; charset=utf-8", fields["Content-Type"], "type")
        check_equal(str(len(body)), fields["Content-Length"], "length")
        check(body.startswith(b"<!DOCTYPE html>") and body.endswith(b"</html>\n"), "no page")
        for name in re.findall(rb"(?:src|href)='([^']+)'", body):
            status, fields, body = exchange(p, b"GET %s?x=1 HTTP/1.0\r\nHost: a\r\n\r\n" % name)
            check_equal((200, str(len(body))), (status, fields["Content-Length"]), name)
            check(b"javascript" in name or "text/" in fields["Content-Type"], name)


@native
def what_is_not_there_is_refused():
    with server() as p:
        for status, data in ((404, b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\n"),
                             (404, b"GET /ws/ HTTP/1.1\r\nHost: a\r\n\r\n"),
                             (404, request("/chat")),
                             (405, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
                             (405, b"DELETE /ws HTTP/1.1\r\nHost: a\r\n\r\n"),
                             (400, b"GET / HTTP/1.1\r\n\r\n"),
                             (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
                             (400, b"GET / HTTP/1.1\nHost: a\n\n"),
                             (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
                             (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5000)):
            got, fields, body = exchange(p, data)
            check_equal(status, got, "status of %r" % data[:60])
            if status == 405:
                check_equal("GET", fields["Allow"], "allowed")
        with Peer(p, "ann") as ann:  # and it still serves
            ann.says("hello")
            ann.hears("ann: hello")


@native
def the_handshake_is_the_example_of_the_rfc():
    with server() as p, Peer(p, "ann") as ann:
        fields = dict(line.split(": ") for line in ann.head.decode().split("\r\n")[1:])
        check_equal("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", fields["Sec-WebSocket-Accept"], "accept")
        check_equal(("websocket", "Upgrade"), (fields["Upgrade"], fields["Connection"]), "fields")
        check("Sec-WebSocket-Extensions" not in fields, "an extension that nobody asked for")


@native
def wrong_handshakes_are_refused():
    with server() as p:
        for status, data in ((400, request(Sec_WebSocket_Key=None)),
                             (400, request(Sec_WebSocket_Key="dGhlIHNhbXBsZQ==")),
                             (400, request(Sec_WebSocket_Key=KEY[:-2])),
                             (400, request(Sec_WebSocket_Version=None)),
                             (426, request(Sec_WebSocket_Version="8")),
                             (426, request(Upgrade="h2c")),
                             (426, request(Connection="keep-alive")),
                             (405, request(method="POST"))):
            got, fields, _ = exchange(p, data)
            check_equal(status, got, "status of %r" % data)
            if status == 426:
                check_equal("13", fields["Sec-WebSocket-Version"], "version")


@native
def frames_may_follow_the_request_at_once():
    with server() as p, socket.create_connection(("127.0.0.1", p.port())) as s:
        s.sendall(request("/ws?name=ann") + frame(TEXT, "early") + frame(CLOSE, b"\x03\xe8"))
        data = receive_all(s)
        check(data.endswith(b"\x81\x0aann: early\x88\x02\x03\xe8"), "got %r" % data[-60:])


@native
def only_its_own_page_may_connect_unless_others_are_allowed():
    def status(p, host, origin):
        with socket.create_connection(("127.0.0.1", p.port())) as s:
            s.sendall(request(Host=host, Origin=origin))
            return int(s.recv(4096).split()[1])
    with server() as p:
        for host, origin, want in (("a.example", None, 101), ("a.example", "http://a.example", 101),
                                   ("a:8080", "https://a:8080", 101),
                                   ("a.example", "http://b.example", 403),
                                   ("a.example", "http://a.example.b", 403),
                                   ("a.example", "http://a.example:80", 403),
                                   ("a", "null", 403), ("a", "", 403), ("a", "http://", 403)):
            check_equal(want, status(p, host, origin), "status for %r at %r" % (origin, host))
    with server("--origin", "https://b.example") as p:
        check_equal(101, status(p, "a", "https://b.example"), "status for the allowed one")
        check_equal(403, status(p, "a", "http://b.example"), "status for another one")
    with server("--origin", "any") as p:
        check_equal(101, status(p, "a", "http://c"), "status for any")


@native
def curl_shakes_hands():
    with server() as p:
        url = "http://127.0.0.1:%d" % p.port()
        curl = [tool("curl"), "-sS", "-N", "-i", "--noproxy", "*", "--http1.1", "-m", "10"]
        code, out, err = run(curl + [url + "/"], emulate=False)
        check_equal((0, True), (code, b"200 OK" in out and b"ws_chat" in out), err)
        fields = [w for f in ("Connection: Upgrade", "Upgrade: websocket",
                              "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + KEY)
                  for w in ("-H", f)]
        with Run(curl + fields + [url + "/ws?name=cur"], emulate=False) as c:
            c.expect(rb"HTTP/1\.1 101 .*s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=.*\* you are cur in lobby")
            with Peer(p, "ann") as ann:
                c.expect(rb"\* ann joined")
                ann.says("hello curl")
                c.expect(rb"ann: hello curl")
            check_equal(0, p.stop(), "exit code")
            c.expect(rb"\x88.\x03\xe9the server stops")


# --- frames ---

@native
def frames_of_all_sizes_pass():
    with server("--message", 65536, "--messages", 1000, "--history", 0) as p, Peer(p, "a") as a:
        for size in (0, 1, 125, 126, 127, 65535, 65536):
            text = "".join(chr(33 + i % 90) for i in range(size)).replace("/", "|")
            a.says(text)
            if size:
                a.hears("a: " + text)


@native
def fragments_become_one_message_and_pings_between_are_answered():
    with server() as p, Peer(p, "ann") as ann:
        euro = "\u20ac".encode()
        ann.s.sendall(frame(TEXT, b"ab" + euro[:1], fin=0) + frame(PING, b"now") +
                      frame(0, euro[1:], fin=0) + frame(PONG, b"?") + frame(0, b"cd"))
        check_equal((PONG, b"now"), ann.frame(), "answer to the ping")
        ann.hears("ann: ab\u20accd")
        for byte in frame(TEXT, "one by one"):
            ann.s.sendall(bytes([byte]))
        ann.hears("ann: one by one")


BROKEN = [
    ("a frame without a mask", frame(TEXT, "x", masked=False), 1002),
    ("a reserved bit", frame(TEXT, "x", rsv=4), 1002),
    ("a reserved opcode", frame(3, "x"), 1002),
    ("5 in 2 bytes", frame(TEXT, "12345", wide=2), 1002),
    ("126 in 8 bytes", frame(TEXT, "x" * 126, wide=8), 1002),
    ("a length of 2^63", frame(TEXT, size=1 << 63, wide=8), 1002),
    ("a ping of 126 bytes", frame(PING, "x" * 126), 1002),
    ("a ping in pieces", frame(PING, "x", fin=0), 1002),
    ("a message within another", frame(TEXT, "x", fin=0) + frame(TEXT, "y"), 1002),
    ("a fragment of nothing", frame(0, "x"), 1002),
    ("half a close code", frame(CLOSE, b"\x03"), 1002),
    ("a close code that is none", frame(CLOSE, struct.pack("!H", 1005)), 1002),
    ("no UTF-8", frame(TEXT, b"ab\xff"), 1007),
    ("half a character", frame(TEXT, b"ab\xe2\x82"), 1007),
    ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
    ("too long", frame(TEXT, "x" * 4097), 1009),
    ("too long in pieces", frame(TEXT, "x" * 4000, fin=0) + frame(0, "x" * 97), 1009),
    ("1 GiB that is only claimed", frame(TEXT, b"x", size=1 << 30), 1009),
    ("binary", frame(BINARY, b"x"), 1003),
]


@fact
def broken_frames_are_answered_with_the_code_for_them():
    with server("--history", 0, "--host-max", 1000) as p, Peer(p, "ann") as ann:
        for what, data, code in BROKEN:
            with Peer(p, "bob", hello=False) as bob:
                bob.until(r"\* you are bob in lobby")
                ann.until(r"\* bob joined")
                bob.s.sendall(frame(TEXT, "before") + data)
                bob.hears("bob: before")
                ann.hears("bob: before")
                kind, payload = bob.frame()
                check_equal((CLOSE, code), (kind, struct.unpack("!H", payload[:2])[0]), what)
                bob.ended()
            ann.hears("* bob left")
        if WINE:
            return  # nobody outside can send a SIGTERM there
        stop(p, ann)
        malformed = sum(code in (1002, 1007) for _, _, code in BROKEN)
        large = sum(code == 1009 for _, _, code in BROKEN)
        p.expect(rb" %d malformed, %d too large, 0 late, 0 slow" % (malformed, large))


@native
def a_close_frame_is_answered_with_its_code():
    with server() as p:
        for payload in (b"", b"\x03\xe8", b"\x03\xe9going", struct.pack("!H", 4321) + b"own"):
            with Peer(p, "ann") as ann:
                ann.s.sendall(frame(CLOSE, payload) + frame(TEXT, "ignored"))
                check_equal((CLOSE, payload[:2]), ann.frame(), "answer to %r" % payload)
                ann.ended()


# --- rooms ---

@native
def rooms_keep_their_talk():
    with server() as p, Peer(p, "ann") as ann, Peer(p, "bob") as bob:
        ann.hears("* bob joined")
        ann.says("hello")
        for who in ann, bob:
            who.hears("ann: hello")
        bob.says("/join garden")
        ann.hears("* bob left")
        bob.hears("* you are bob in garden")
        with Peer(p, "cid", "garden") as cid:
            bob.hears("* cid joined")
            cid.says("flowers")
            for who in bob, cid:
                who.hears("cid: flowers")
            ann.says("alone")
            ann.hears("ann: alone")
            for wrong in "not/good", "", "x" * 17:
                cid.says("/join " + wrong)
                cid.hears("* no name of a room")
            cid.says("/nonsense")
            cid.hears("* the only command is /join ROOM")
        bob.hears("* cid left")
        bob.says("/join lobby")
        ann.hears("* bob joined")


@native
def names_are_good_and_nobody_elses():
    with server() as p, Peer(p, "ann") as ann:
        for wanted in ("ann", "", "x" * 17, "a%20b", "a.b"):
            with Peer(p, wanted, hello=False) as other:
                text = other.until(r"\* you are guest\d+ in lobby")
                guest = text.split()[3]
                ann.hears("* %s joined" % guest)
            ann.hears("* %s left" % guest)
        with Peer(p, "bob", room="not/good", hello=False) as bob:
            bob.hears("* you are bob in lobby")


@native
def who_comes_late_is_told_the_last_lines():
    with server("--history", 3, "--messages", 100) as p, Peer(p, "ann", "x") as ann:
        for i in range(5):
            ann.says("line %d" % i)
            ann.hears("ann: line %d" % i)
        with Peer(p, "bob", "x", hello=False) as bob:
            bob.hears("ann: line 2", "ann: line 3", "ann: line 4", "* you are bob in x")
            ann.hears("* bob joined")
        ann.hears("* bob left")
        ann.says("/join y")
        ann.hears("* you are ann in y")
        ann.says("/join x")  # which began anew: nobody was left in it
        ann.hears("* you are ann in x")


@native
def all_of_the_last_lines_fit_the_queue_of_who_comes():
    with server("--queue", 64, "--message", 65536, "--messages", 1000) as p, Peer(p, "ann") as ann:
        lines = ["%d " % i + "x" * 65000 for i in range(20)]
        for line in lines:
            ann.says(line)
            ann.hears("ann: " + line)
        with Peer(p, "bob", hello=False, receive=4096) as bob:
            bob.hears(*["ann: " + line for line in lines])
            bob.hears("* you are bob in lobby")


@native
def the_number_of_rooms_is_bounded():
    with server("--messages", 1000, "--host-max", 1000) as p:
        peers = [Peer(p, "a%d" % i, "r%d" % i) for i in range(100)]
        try:
            peers[0].says("/join more")
            peers[0].hears("* there are too many rooms")
            with Peer(p, "late", "more", hello=False) as late:
                late.closed(1013, "too many rooms")
            peers[0].says("/join r1")  # its own is free now
            peers[0].hears("* you are a0 in r1")
            with Peer(p, "late", "more"):
                pass
        finally:
            for peer in peers:
                peer.s.close()


@native
def text_that_steers_terminals_does_not_pass():
    with server() as p, Peer(p, "ann") as ann:
        ann.says("a\x1b[2J\nb: c\r\x00\x7f\u0085\u009b31m gr\u00fc\u00df")
        ann.hears("ann: a [2J b: c       31m gr\u00fc\u00df")


# --- time and load ---

@native
def who_answers_pings_stays_and_who_does_not_is_gone():
    with server("--silence", 1) as p, Peer(p, "ann") as ann:
        with Peer(p, "bob", pong=False) as bob:
            ann.hears("* bob joined")
            start = time.monotonic()
            check_equal(PING, bob.frame()[0], "what comes to a silent one")
            took = time.monotonic() - start
            check(0.2 < took < 5, "ping after %.2f s" % took)
            ann.hears("* bob left")  # this answers pings meanwhile
            took = time.monotonic() - start
            check(0.7 < took < 8, "gone after %.2f s" % took)
        ann.says("still here")
        ann.hears("ann: still here")
        p.expect(rb"no answer: gone", p.err)


@native
def who_sends_too_many_is_read_more_slowly_and_loses_none():
    with server("--messages", 20) as p, Peer(p, "ann") as ann, Peer(p, "bob") as bob:
        ann.hears("* bob joined")
        start = time.monotonic()
        ann.s.sendall(b"".join(frame(TEXT, "%d" % i) for i in range(50)))
        ann.hears(*["ann: %d" % i for i in range(19)])
        bob.says("hello")  # waits for nobody
        bob.until("bob: hello")
        check(time.monotonic() - start < 1, "the first ones waited")
        ann.until("ann: 49")
        took = time.monotonic() - start
        check(1.4 < took < 10, "took %.2f s" % took)


@native
def pings_count_as_messages():
    with server("--messages", 20) as p, Peer(p, "ann") as ann:
        start = time.monotonic()
        ann.s.sendall(b"".join(frame(PING, b"%d" % i) for i in range(50)))
        for i in range(50):
            check_equal((PONG, b"%d" % i), ann.frame(), "answer to a ping")
        took = time.monotonic() - start
        check(1.4 < took < 10, "took %.2f s" % took)


@native
def eight_mib_reach_a_slow_reader_whole_and_in_order():
    options = "--queue", 16384, "--message", 65536, "--messages", 100000, "--history", 0
    with server(*options) as p, Peer(p, "ann") as ann:
        with Peer(p, "slow", receive=4096) as slow:
            ann.hears("* slow joined")
            lines = ["%06d " % i + chr(97 + i % 26) * 65000 for i in range(130)]
            check(sum(map(len, lines)) > 8 << 20, "too little")
            for line in lines:  # ann has got all of it before slow reads a byte
                ann.says(line)
                ann.hears("ann: " + line)
            for line in lines:
                slow.hears("ann: " + line)
            slow.says("done")
            ann.hears("slow: done")


@native
def who_does_not_read_is_cut_off_and_costs_the_others_nothing():
    with server("--messages", 100000, "--history", 0) as p, Peer(p, "ann") as ann:
        with Peer(p, "slow", receive=4096), Peer(p, "bob") as bob:
            ann.until(r"\* bob joined")
            before, sent, text = memory_kib(p.pid), 0, "x" * 4000
            while sent < 64 << 20:
                for _ in range(20):
                    ann.says(text)
                heard = [bob.text() for _ in range(20)]
                if "* slow left" in heard:
                    break
                check_equal(["ann: " + text] * 20, heard, "what bob heard")
                sent += 20 * len(text)
            check(sent < 64 << 20, "it was never cut off")
            check(memory_kib(p.pid) - before < 16384, "memory grew")
            p.expect(rb"does not read: cut off", p.err)
        stop(p, ann)
        p.expect(rb"0 late, 1 slow")


@native
def more_clients_than_allowed_are_refused():
    for option in "--max", "--host-max":
        with server(option, 3) as p:
            peers = [Peer(p, "a%d" % i) for i in range(3)]
            try:
                for _ in range(2):
                    status, _, _ = exchange(p, b"")
                    check_equal(503, status, "status")
                peers.pop().s.close()
                peers[0].until(r"\* a2 left")
                deadline = time.monotonic() + 10
                while exchange(p, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")[0] != 200:
                    check(time.monotonic() < deadline, "no room after one has left")
            finally:
                for peer in peers:
                    peer.s.close()
            p.stop()
            p.expect(rb" came, [2-9]\d* refused,")


@native
def requests_that_never_end_cost_little_and_are_closed():
    with server("--request", 1, "--max", 1000, "--host-max", 1000) as p, Peer(p, "ann") as ann:
        before = memory_kib(p.pid)
        halves = []
        try:
            for i in range(300):
                s = socket.create_connection(("127.0.0.1", p.port()))
                s.settimeout(20)
                s.sendall((b"", b"GET / HTTP/1.1\r\nHost: a\r\nX: ")[i % 2])
                halves.append(s)
            ann.says("still served")
            ann.hears("ann: still served")
            check_equal(200, exchange(p, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")[0], "status")
            check(memory_kib(p.pid) - before < 4096, "memory grew by %d KiB" %
                  (memory_kib(p.pid) - before))
            for i, s in enumerate(halves):
                try:
                    if i % 2:
                        s.sendall(b"x")  # drop by drop does not help
                    check_equal(b"", s.recv(100), "what it was told")
                except ConnectionError:
                    pass
        finally:
            for s in halves:
                s.close()
        ann.says("still there")
        ann.hears("ann: still there")
        stop(p, ann)
        p.expect(rb" 300 late, ")


@native
def many_clients_come_and_go_without_a_trace():
    with server("--messages", 1000) as p, Peer(p, "ann") as ann:
        def crowd(count):
            for i in range(count):
                with Peer(p, "b", "room%d" % (i % 7) if i % 2 else "lobby") as b:
                    b.says("hello")
                    b.until("b: hello")
                    if i % 3 == 0:
                        b.s.sendall(frame(CLOSE))
        crowd(50)
        before = memory_kib(p.pid)
        crowd(200)
        check(memory_kib(p.pid) - before < 2048, "grew by %d KiB" % (memory_kib(p.pid) - before))
        ann.says("hello")
        ann.until("ann: hello")


@native
def it_uses_little_while_nobody_speaks():
    with server() as p, Peer(p, "ann"):
        used = cpu_seconds(p.pid)[0]
        time.sleep(1)  # the silence is what is measured
        used = cpu_seconds(p.pid)[0] - used
        check(used < 0.03, "%.0f ms of a second" % (1000 * used))


@native
def a_stop_tells_all_and_waits_for_them():
    for number in signal.SIGTERM, signal.SIGINT:
        with server() as p, Peer(p, "ann") as ann, Peer(p, "bob") as bob:
            ann.hears("* bob joined")
            ann.says("the last word")
            ann.hears("ann: the last word")
            p.process.send_signal(number)
            ann.closed(1001, "the server stops")
            bob.hears("ann: the last word")
            bob.closed(1001, "the server stops")
            check_equal(0, p.wait(), "exit code")
            p.expect(rb"\n2 came, 0 refused, 0 malformed, 0 too large, 0 late, 0 slow\r?\n$")


@native
def a_stop_does_not_wait_for_ever():
    with server("--grace", 0.5, "--queue", 65536, "--messages", 1e6, "--history", 0) as p:
        with Peer(p, "ann") as ann, Peer(p, "slow", receive=4096):
            ann.hears("* slow joined")
            for _ in range(2000):
                ann.says("x" * 4000)
                ann.text()
            start = time.monotonic()
            check_equal(0, p.stop(), "exit code")
            check(0.4 < time.monotonic() - start < 10, "%.2f s" % (time.monotonic() - start))


# --- the client ---

@fact
def clients_talk():
    with server() as p, chatter(p, "ann", "?room=x") as ann:
        ann.expect(rb"\* you are ann in x\r?\n")
        with chatter(p, "bob", "?room=x") as bob:
            ann.expect(rb"\* bob joined\r?\n")
            bob.feed("gr\u00fc\u00df dich\nhow are you?\n".encode())
            for who in ann, bob:
                who.expect("bob: gr\u00fc\u00df dich\r?\nbob: how are you\\?\r?\n".encode())
            ann.feed(b"/join y\n")
            bob.expect(rb"\* ann left\r?\n")
            bob.feed_and_end(b"without a line end")
            check_equal(0, bob.wait(), "exit code")
            bob.expect(rb"bob: without a line end\r?\n$")
            bob.expect(rb"closed: 1000", bob.err)
        ann.end_input()
        check_equal(0, ann.wait(), "exit code")


@native
def a_client_reads_a_file_and_nothing():
    # More than fits the queues on the way; what comes back must not wait for what goes.
    with server("--messages", 200, "--message", 65536, "--history", 0) as p:
        with open(path("lines"), "w") as f:
            f.writelines("line %d %s\n" % (i, "x" * 60000) for i in range(400))
        for name in path("lines"), os.devnull:
            url = "ws://127.0.0.1:%d/ws?room=x" % p.port()
            with open(name) as f, open(path("echo"), "w") as out:
                with Run([PROGRAM, "connect", url, "ann"], stdin=f, stdout=out) as ann:
                    check_equal(0, ann.wait(), "exit code; %r" % bytes(ann.err))
            with open(name) as f, open(path("echo")) as out:
                want = ["* you are ann in x\n"] + ["ann: " + line for line in f]
                check_equal(want, out.readlines(), "what it printed")


@fact
def a_client_says_why_it_ends():
    with server() as p:
        for query, words in (("/nope", rb"no WebSocket there: status 404"),
                             ("", rb"no WebSocket there: status 200")):
            with Run([PROGRAM, "connect", "ws://127.0.0.1:%d%s" % (p.port(), query), "ann"]) as c:
                check_equal(1, c.wait(), "exit code")
                c.expect(words, c.err)
        with chatter(p) as c:
            c.expect(rb"you are ann")
            c.feed(b"\xff\xfe\n")
            check_equal(1, c.wait(), "exit code")
            c.expect(rb"the input is no UTF-8", c.err)
        with chatter(p) as c:
            c.expect(rb"you are ann")
            c.feed(b"x" * 5000 + b"\n")
            check_equal(1, c.wait(), "exit code")
            c.expect(rb"closed: 1009", c.err)
        port = p.port()
        if not WINE:
            with chatter(p) as c:
                c.expect(rb"you are ann")
                p.stop()
                check_equal(0, c.wait(), "exit code")
                c.expect(rb"closed: 1001 the server stops", c.err)
    with Run([PROGRAM, "connect", "ws://127.0.0.1:%d/" % port, "ann"]) as c:
        if not WINE:
            check_equal(1, c.wait(), "exit code")
            c.expect(rb"refused", c.err)


@native
def a_client_leaves_on_a_signal():
    with server() as p, Peer(p, "bob") as bob, chatter(p) as c:
        c.expect(rb"you are ann")
        check_equal(0, c.stop(signal.SIGINT), "exit code")
        bob.hears("* ann joined", "* ann left")


@native
def a_client_notices_a_dead_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = "ws://127.0.0.1:%d/" % listener.getsockname()[1]
        with Run([PROGRAM, "connect", "--silence", "1", url, "ann"]) as c:
            with listener.accept()[0] as s:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += s.recv(4096)
                key = re.search(rb"Sec-WebSocket-Key: (\S+)", head).group(1)
                accept = base64.b64encode(hashlib.sha1(
                    key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                s.sendall(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" +
                          frame(TEXT, "a\x1b[2Jb", masked=False))
                c.expect(rb"^a \[2Jb\r?\n")
                check_equal(1, c.wait(), "exit code")
                c.expect(rb"no answer: gone", c.err)


@native
def both_families_meet():
    need_ipv6()
    with Run([PROGRAM, ":0"]) as p, Peer(p, "ann") as ann:
        with chatter(p, "six", host="[::1]") as six:
            ann.hears("* six joined")
            six.feed_and_end(b"from afar\n")
            ann.hears("six: from afar")


# --- TLS ---

def context():
    return ssl.create_default_context(cafile=certs("ca.pem"))


@fact
def without_a_library_tls_is_refused_with_a_reason():
    if not no_tls():
        raise Skip("the programs were built with a TLS library")
    for words in (["--cert", "x.pem"], ["connect", "wss://127.0.0.1:1/", "ann"]):
        code, _, err = run([PROGRAM] + words)
        check_equal((1, True), (code, "built without TLS" in err), err)


@native
def wss_works_in_both_roles():
    with server("--cert", certs("good.crt"), "--key", certs("key.pem")) as p:
        with Peer(p, "ann", tls=context()) as ann:
            with chatter(p, "bob", scheme="wss", options=["--ca", certs("ca.pem")]) as bob:
                bob.expect(rb"you are bob")
                ann.hears("* bob joined")
                ann.says("hello " + "x" * 4000)
                bob.expect(rb"ann: hello x{4000}\r?\n")
                bob.feed_and_end(b"bye\n")
                ann.until("bob: bye")
                check_equal(0, bob.wait(), "exit code")
            p.process.send_signal(signal.SIGTERM)
            ann.hears("* bob left")
            ann.closed(1001)
        check_equal(0, p.wait(), "exit code")


@native
def a_certificate_that_is_not_trusted_is_refused():
    with server("--cert", certs("good.pem")) as p:
        with chatter(p, "bob", scheme="wss", options=["--ca", certs("other.crt")]) as c:
            check_equal(1, c.wait(), "exit code")
            c.expect(rb"certificate|issuer|trust", c.err)
    with Run([PROGRAM, "--cert", path("none.pem"), "127.0.0.1:0"]) as c:
        check_equal(1, c.wait(), "exit code")
        c.expect(rb"none\.pem", c.err)


# --- other people's WebSockets ---

def node(*words):
    """node with npm's ws, from the folders where Debian and npm put modules for everybody."""
    folders = [os.environ.get("NODE_PATH", ""), "/usr/share/nodejs", "/usr/lib/node_modules",
               "/usr/local/lib/node_modules"]
    env = dict(os.environ, NODE_PATH=":".join(f for f in folders if f))
    if subprocess.call([tool("node"), "-e", "require('ws')"], env=env, stderr=subprocess.DEVNULL):
        raise Skip("no ws for node (npm: ws; Debian: nodejs, node-ws)")
    return Run(["node"] + [str(w) for w in words], env=env, emulate=False)


NODE_CLIENT = """
const ws = new (require('ws'))(process.argv[1]);
ws.on('message', (data) => console.log(`${data}`));
ws.on('close', (code, reason) => console.log(`closed ${code} ${reason}`));
ws.on('error', (error) => console.log(`FAIL ${error.message}`));
process.stdin.on('data', (data) => {
  for (const line of `${data}`.split('\\n')) if (line) ws.send(line);
}).on('end', () => ws.close(4000, 'enough'));
"""

PYTHON_CLIENT = """
import asyncio, sys, websockets
async def talk():
    async with websockets.connect(sys.argv[1]) as ws:
        print(await ws.recv(), flush=True)
        for line in sys.stdin:
            await ws.send(line.rstrip())
            print(await ws.recv(), flush=True)
        await ws.ping()
        await ws.close(4000, "enough")
        print("closed", ws.close_code, flush=True)
asyncio.run(talk())
"""

PYTHON_SERVER = """
import asyncio, websockets
async def echo(ws, path=None):
    async for text in ws:
        if text == "end":
            await ws.close(4001, "you said so")
        else:
            await ws.send("<" + text + ">")
async def serve():
    async with websockets.serve(echo, "127.0.0.1", 0, ping_interval=0.2) as s:
        print("listening on 127.0.0.1:%d" % s.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(serve())
"""


def python_websockets(script, *words):
    for python in sys.executable, "/usr/bin/python3":
        if subprocess.call([python, "-c", "import websockets"], stderr=subprocess.DEVNULL) == 0:
            return Run([python, "-c", script] + list(words), emulate=False)
    raise Skip("no websockets for Python (pip: websockets; Debian: python3-websockets)")


@native
def npms_ws_is_a_client():
    with server() as p, Peer(p, "ann") as ann:
        url = "ws://127.0.0.1:%d/ws?name=nod" % p.port()
        with node("-e", NODE_CLIENT, url) as c:
            c.expect(rb"\* you are nod in lobby\n")
            ann.hears("* nod joined")
            ann.says("hello \u20ac " + "x" * 4000)
            c.expect("ann: hello \u20ac x{4000}\n".encode())
            c.feed(b"and back\n")
            ann.until("nod: and back")
            c.end_input()
            c.expect(rb"closed 4000 ")
            check_equal(0, c.wait(), "exit code of node")
            ann.hears("* nod left")


@fact
def npms_ws_is_a_server():
    with node(os.path.join(SOURCE, "tests", "peers", "ws_peer.js"), "server") as p:
        port = p.expect(rb"^(\d+)\n").group(1).decode()
        lines = ["line %d %s" % (i, "\u20ac" * (i * 37 % 1500)) for i in range(200)]
        with Run([PROGRAM, "connect", "ws://127.0.0.1:%s/?room=x" % port, "ann"]) as c:
            c.feed_and_end("".join(line + "\n" for line in lines).encode())
            check_equal(0, c.wait(), "exit code")
            check_equal(lines, bytes(c.out).decode().splitlines(), "what came back")


@native
def pythons_websockets_is_a_client():
    with server() as p:
        with python_websockets(PYTHON_CLIENT, "ws://127.0.0.1:%d/ws?name=pyt" % p.port()) as c:
            c.expect(rb"\* you are pyt in lobby\n")
            c.feed_and_end(b"hello\nworld\n")
            c.expect(rb"pyt: hello\npyt: world\nclosed 4000")
            check_equal(0, c.wait(), "exit code of Python")


@native
def pythons_websockets_is_a_server():
    with python_websockets(PYTHON_SERVER) as p, chatter(p) as c:
        c.feed(b"hello\n")
        c.expect(rb"<hello>\r?\n")
        time.sleep(0.5)  # it pings meanwhile, and would close
        c.feed(b"end\n")
        check_equal(1, c.wait(), "exit code")
        c.expect(rb"closed: 4001 you said so", c.err)


# --- the page in a browser ---

class Browser:
    """Chromium, driven by chromedriver's JSON over HTTP."""

    def __init__(self, driver, name):
        self.port = driver
        self.profile = tempfile.mkdtemp(prefix="chromium-", dir=folder)
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                     "--no-first-run", "--disable-background-networking",
                     "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                     "--window-size=700,500", "--user-data-dir=" + self.profile]
        options = {"binary": tool("chromium"), "args": arguments}
        answer = self.do("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options}}})
        self.session = "/session/" + answer["sessionId"]
        self.name = name

    def do(self, method, where, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request(method, where, None if body is None else json.dumps(body),
                  {"Content-Type": "application/json"})
        answer = json.loads(c.getresponse().read())["value"]
        c.close()
        check(not isinstance(answer, dict) or "error" not in answer, "%s: %r" % (where, answer))
        return answer

    def run(self, script):
        return self.do("POST", self.session + "/execute/sync", {"script": script, "args": []})

    def element(self, css):
        answer = self.do("POST", self.session + "/element",
                         {"using": "css selector", "value": css})
        return self.session + "/element/" + list(answer.values())[0]

    def types(self, css, text):
        self.do("POST", self.element(css) + "/value", {"text": text})

    def joins(self, p, room):
        self.do("POST", self.session + "/url",
                {"url": "http://127.0.0.1:%d/?room=%s" % (p.port(), room)})
        self.types("#name", self.name)
        self.do("POST", self.element("#join button") + "/click", {})
        self.shows("* you are %s in %s" % (self.name, room))

    def lines(self):
        return self.run("return [...document.querySelectorAll('#log p')].map(p => p.textContent)")

    def shows(self, line):
        deadline = time.monotonic() + 20
        while line not in self.lines():
            check(time.monotonic() < deadline, "%s does not show %r: %r" % (
                self.name, line, self.lines()))
            time.sleep(0.05)  # a page cannot be waited for but by looking

    def screenshot(self, file):
        with open(file, "wb") as f:
            f.write(base64.b64decode(self.do("GET", self.session + "/screenshot")))

    def end(self):
        self.do("DELETE", self.session)


@native
def two_browsers_talk_on_the_page():
    tool("chromium")
    with Run([tool("chromedriver"), "--port=0"], emulate=False, start_new_session=True) as driver:
        try:
            port = int(driver.expect(rb"on port (\d+)\.").group(1))
            starts = [in_thread(Browser, port, name) for name in ("ann", "bob")]
            ann, bob = [start() for start in starts]
            talk_by_page(ann, bob)
            for browser in ann, bob:
                browser.end()
        finally:
            try:
                os.killpg(driver.pid, signal.SIGKILL)  # it and its browsers, if they still live
            except ProcessLookupError:
                pass


def talk_by_page(ann, bob):
    with server() as p:
        ann.joins(p, "garden")
        bob.joins(p, "garden")
        ann.shows("* bob joined")
        ann.types("#text", "hello bob\n")
        for browser in ann, bob:
            browser.shows("ann: hello bob")
        bob.types("#text", "<b>gr\u00fc\u00df</b> & <script>alert(1)</script>\n")
        ann.shows("bob: <b>gr\u00fc\u00df</b> & <script>alert(1)</script>")
        check_equal(0, ann.run("return document.querySelectorAll('#log b, #log script').length"),
                    "elements that came by a message")
        check_equal("own", ann.run("return [...document.querySelectorAll('#log p')].find("
                                   "p => p.textContent == 'ann: hello bob').className"), "class")
        with chatter(p, "cid", "?room=garden") as cid:
            cid.expect(rb"ann: hello bob\r?\n")  # the room told its last lines
            cid.feed(b"from a terminal\n")
            for browser in ann, bob:
                browser.shows("cid: from a terminal")
        title = ann.run("return document.querySelector('#title').textContent")
        check_equal("garden", title, "room")
        shot = os.environ.get("NETIO_SCREENSHOT")
        if shot:
            ann.screenshot(shot)
        bob.types("#text", "/join shed\n")
        bob.shows("* you are bob in shed")
        ann.shows("* bob left")
        check_equal([], [e for e in ann.do("POST", ann.session + "/se/log", {"type": "browser"})
                         if e["level"] == "SEVERE" and "favicon" not in e["message"]],
                    "errors in the browser's console")
        check_equal(0, p.stop(), "exit code")
        ann.shows("* closed: 1001 the server stops")


@native
def wrong_use_is_said():
    for words in (["--max"], ["--what", "1"], ["--max", "none"], ["--history", "x"],
                  ["--message", "1e9"], ["a", "b"], ["connect"], ["connect", "ws://a/"],
                  ["connect", "http://a/", "ann"],
                  ["connect", "ws://a/#b", "ann"], ["connect", "ws://a/", "not good"],
                  ["connect", "ws:///x", "ann"]):
        with Run([PROGRAM] + words) as p:
            check_equal(2, p.wait(), "exit code of %r" % words)
            p.expect(rb"usage: ws_chat", p.err)
    with Run([PROGRAM, "127.0.0.1:99999"]) as p:
        check_equal(1, p.wait(), "exit code")
        p.expect(rb"127\.0\.0\.1:99999: ", p.err)


main("ws_chat")
