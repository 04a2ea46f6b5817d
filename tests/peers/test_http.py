#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""HTTP heads and chunked bodies between netio's codecs and Python's h11.

netio takes less than h11 on purpose (chunk sizes followed by blanks, bare line feeds, two equal
lengths...). So: what is sound, both read alike; and whatever netio takes, h11 takes, and both make
the same of it, or somebody could be made to see two messages where the other sees one."""
import os
import random
import re

import peers
from codec import Codec

try:
    import h11
except ImportError:
    h11 = None

ROUNDS = int(os.environ.get("NETIO_ROUNDS", "800"))

NAMES = [b"Host", b"Accept", b"X-A", b"x-b", b"Cookie", b"Connection", b"Content-Length",
         b"Transfer-Encoding", b"Upgrade", b"!#$%&'*+-.^_`|~0"]
VALUES = {b"Connection": [b"close", b"keep-alive", b"Upgrade", b"a, close", b"Keep-Alive ,x"],
          b"Content-Length": [b"0", b"5", b"05", b"5, 5", b"5, 6", b"+5", b"0x5", b"", b"9" * 11],
          b"Transfer-Encoding": [b"chunked", b"Chunked", b"gzip, chunked", b"identity",
                                 b"chunked,"],
          b"Host": [b"a", b"a.example:80", b"[::1]", b"", b"a, b", b"a b"]}
SPICE = [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b"\x0b", b"\x7f", b"\xa0", b":", b"HTTP/1.1",
         b"\r\n ", b"\r\n\r\n", b"\x01", b"GET / HTTP/1.1\r\n", b"Content-Length: 3\r\n", b",", b"0",
         b"\xc3\xa9"]


def random_head(r, request):
    """A head that is mostly sound."""
    if request:
        line = b" ".join([r.choice([b"GET", b"POST", b"OPTIONS", b"x!"]),
                          r.choice([b"/", b"/a?b=c", b"http://a.example/", b"//x", b"*"]),
                          r.choice([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"])])
    else:
        line = b" ".join([r.choice([b"HTTP/1.1", b"HTTP/1.0"]),
                          r.choice([b"200", b"204", b"304", b"404", b"599"]),
                          r.choice([b"OK", b"", b"a b"])])
    fields = [(b"Host", b"a")] if request and r.randrange(8) else []
    for _ in range(r.randrange(6)):
        name = r.choice(NAMES)
        if name != b"Host" or r.randrange(20) == 0:
            values = VALUES.get(name, [b"x", b"", b"a b", b"caf\xc3\xa9", b"a:b"])
            fields.append((name, r.choice(values)))
    r.shuffle(fields)
    blank = [b"", b" ", b"\t", b"  "]
    lines = [line] + [name + b":" + r.choice(blank) + value + r.choice(blank)
                      for name, value in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def spiced(r, data):
    data = bytearray(data)
    for _ in range(r.choice([0, 0, 1, 1, 2, 3])):
        at = r.randrange(len(data) + 1)
        kind = r.randrange(4)
        if kind == 0:
            data[at:at] = r.choice(SPICE)
        elif kind == 1:
            del data[at:at + r.randrange(1, 3)]
        elif kind == 2 and at < len(data):
            data[at] = r.randrange(256)
        elif at < len(data):
            data[at:at + 1] = r.choice(SPICE)
    return bytes(data)


def by_h11(data, request):
    """The first event of a head, or None."""
    c = h11.Connection(h11.SERVER if request else h11.CLIENT)
    if not request:
        c.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        c.send(h11.EndOfMessage())
    try:
        c.receive_data(data)
        event = c.next_event()
    except h11.RemoteProtocolError:
        return None
    heads = (h11.Request, h11.Response, h11.InformationalResponse)
    return event if isinstance(event, heads) else None


def body_by_h11(data):
    """Body and trailers of a chunked response, and what is left behind it; None: it is refused."""
    c = h11.Connection(h11.CLIENT)
    c.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    c.send(h11.EndOfMessage())
    body = b""
    try:
        c.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
        while True:
            event = c.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return body, [(n.lower(), v) for n, v in event.headers], c.trailing_data[0]
            elif event is h11.NEED_DATA or event is h11.PAUSED:
                return body, None, b""
    except h11.RemoteProtocolError:
        return None


class Case(peers.unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.codec = Codec()

    @classmethod
    def tearDownClass(cls):
        assert cls.codec.end() == 0

    def setUp(self):
        if h11 is None:
            self.skipTest("no h11 (pip: h11; Debian: python3-h11)")


class Heads(Case):
    def both(self, data, request):
        """netio's head and h11's, which must be there if netio's is."""
        err, head = self.codec.parse(data)
        if err != "OK":
            return None
        whole = data if data.endswith(b"\r\n\r\n") else data + b"\r\n"  # netio needs no empty line
        event = by_h11(whole, request)
        self.assertIsNotNone(event, "only netio takes %r" % data)
        if request:
            self.assertEqual((head.method, head.target), (event.method, event.target))
        else:
            self.assertEqual((head.status, head.reason), (event.status_code, event.reason))
        self.assertEqual(b"1.%d" % head.minor, event.http_version)
        mine = [(n.lower(), v.lower() if n.lower() == b"transfer-encoding" else v)
                for n, v in head.fields]
        self.assertEqual(mine, [(n, v) for n, v in event.headers])
        lengths = [int(v) for n, v in event.headers if n == b"content-length"]
        self.assertEqual(lengths[0] if lengths else -1, head.length)
        self.assertEqual((b"transfer-encoding", b"chunked") in list(event.headers), head.chunked)
        options = [m.strip().lower() for n, v in event.headers if n == b"connection"
                   for m in v.split(b",")]
        self.assertEqual(b"close" not in options and (head.minor > 0 or b"keep-alive" in options),
                         head.keep_alive)
        return head

    def test_whatever_netio_takes_h11_takes_alike(self):
        taken = 0
        for i in range(4 * ROUNDS):
            r = random.Random(i)
            request = bool(i % 2)
            data = spiced(r, random_head(r, request))
            if data.startswith(b"HTTP/") == request:
                continue                               # it became the other one
            with self.subTest(i):
                taken += self.both(data, request) is not None
        self.assertGreater(taken, ROUNDS // 4)         # both sides of the fence were visited

    def test_what_h11_writes_is_read(self):
        for i in range(ROUNDS // 4):
            r = random.Random(i)
            c = h11.Connection(h11.CLIENT)
            fields = [("Host", "a.example"), ("X-A", "b" * r.randrange(100)),
                      ("Content-Length", "5")]
            data = c.send(h11.Request(method="POST", target="/x?%d" % i, headers=fields))
            with self.subTest(i):
                head = self.both(data, True)
                self.assertEqual((b"POST", 5), (head.method, head.length))


class Chunked(Case):
    def by_netio(self, data, seed):
        """As body_by_h11, up to the first body's end."""
        err, _, frames = self.codec.decode("chunked:100000", data, seed)
        body, at = b"", 0
        for f in frames:
            body += f.payload
            if not f.payload:
                fields = [line.split(b":", 1) for line in f.header.split(b"\r\n") if line]
                return err, body, [(n.lower(), v.strip(b" \t")) for n, v in fields]
        return err, body, None

    def body(self, r):
        parts = []
        for _ in range(r.randrange(6)):
            size = r.choice([1, 2, 9, 10, 15, 16, 17, 255, 256, r.randrange(1, 2000)])
            chunk = os.urandom(size) if r.randrange(2) else b"0\r\n\r\n"
            name = r.choice(["%x", "%X", "0%x", "000%x"]) % len(chunk)
            ext = r.choice(["", "", ";a", ";a=b", ";a=\"b\"", ";a=\"\\\"\";c"])
            parts.append((name + ext + "\r\n").encode() + chunk + b"\r\n")
        last = r.choice([b"0", b"00", b"0;a=b"]) + b"\r\n"
        trailers = b"".join(r.choice([b"A: b\r\n", b"X-Sum:1\r\n", b"c: \r\n"])
                            for _ in range(r.choice([0, 0, 1, 3])))
        return b"".join(parts) + last + trailers + b"\r\n"

    def test_sound_bodies_are_read_as_h11_does(self):
        for i in range(ROUNDS):
            r = random.Random(i)
            data = self.body(r)
            with self.subTest(i):
                want = body_by_h11(data)
                for seed in (0, i + 1):
                    self.assertEqual(("OK",) + want[:2], self.by_netio(data, seed), data)

    def test_whatever_netio_takes_h11_takes_alike(self):
        whole = 0
        for i in range(4 * ROUNDS):
            r = random.Random(i)
            data = spiced(r, self.body(r))
            err, body, trailers = self.by_netio(data, i % 3)
            if trailers is None:
                continue
            whole += 1
            with self.subTest(i):
                got = body_by_h11(data)
                if got is None and re.search(rb"[0-9a-fA-F\"][ \t]+[;=]|[;=][ \t]", data):
                    continue                           # white space that the RFC allows, h11 not
                self.assertIsNotNone(got, "only netio takes %r" % data)
                self.assertEqual((body, trailers), got[:2], data)
        self.assertGreater(whole, ROUNDS)

    def test_what_netio_writes_is_read_by_h11(self):
        for i in range(ROUNDS):
            r = random.Random(i)
            pieces = [os.urandom(r.choice([1, 15, 16, 255, 256, 4096]))
                      for _ in range(r.randrange(5))]
            data = b"".join(self.codec.encode("chunked", 0, p) for p in pieces)
            data += self.codec.encode("chunked", 0, b"")
            with self.subTest(i):
                self.assertEqual((b"".join(pieces), [], b"x"), body_by_h11(data + b"x"))


if __name__ == "__main__":
    peers.LIMIT_S += ROUNDS // 10                      # long runs are asked for by hand
    peers.main()
