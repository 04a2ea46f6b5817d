#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""Frames against what others wrote: the packages cobs, sliplib and protobuf, and Python's own struct,
zlib and UTF-8 decoder. Each reads what the other writes; on bytes of chance both say the same."""
import codecs
import os
import random
import shlex
import shutil
import struct
import subprocess
import tempfile
import zlib

import peers

ROUNDS = 250
EDGES = [0, 1, 2, 126, 127, 128, 253, 254, 255, 256, 507, 508, 509, 510, 762, 1000]


def package(case, name):
    """A package, or a skip with the way to get it."""
    try:
        module = __import__(name, fromlist=["x"])
    except ImportError:
        case.skipTest("no Python package " + name.split(".", maxsplit=1)[0])
    return module


class FrameDriver(peers.Driver):
    """frame_driver.c, compiled for these tests. It does no input or output of netio's, so it is a
    program of this system under every NETIO_DRIVER."""
    command = None
    folder = None

    @classmethod
    def build(cls):
        cls.folder = tempfile.mkdtemp(prefix="netio-")
        cls.command = os.path.join(cls.folder, "frame_driver")
        source = os.environ.get("NETIO_SOURCE", os.path.join(peers.HERE, "..", ".."))
        words = [os.environ.get("CC", "cc")] + shlex.split(os.environ.get("CFLAGS", "-g"))
        words += ["-I" + source, os.path.join(peers.HERE, "frame_driver.c"), "-o", cls.command,
                  "-pthread"]
        subprocess.run(words, check=True)

    def __init__(self):  # pylint: disable=super-init-not-called
        self.process = subprocess.Popen([self.command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.buffer = b""


class Frames(peers.Case):
    @classmethod
    def setUpClass(cls):
        FrameDriver.build()

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(FrameDriver.folder, True)

    def start(self, *args, **kwargs):
        driver = FrameDriver()
        self.addCleanup(lambda: self.assertEqual(0, driver.end()))
        return driver

    def setUp(self):
        super().setUp()
        self.random = random.Random(1)

    def encode(self, framing, data, limit=100000):
        return self.ok("encode", framing, limit, data.hex() or "-").bytes

    def decode(self, framing, wire, limit=100000, err="EOF"):
        """The frames, and where it ended: the same in pieces of three lengths."""
        first = None
        for cut in (0, 1, 7):
            answer = self.check(err, self.do("decode", framing, limit, cut, wire.hex() or "-"))
            got = [bytes.fromhex(frame) for frame in answer.all("frame")], answer.at
            self.assertEqual(first or got, got)
            first = got
        return first

    def payload(self, letters=None, least=0):
        size = max(self.random.choice(EDGES + [self.random.randrange(40) for _ in EDGES]), least)
        letters = letters or self.random.choice([b"\0", b"\0\1", b"\xc0\xdb\xdc\xdd",
                                                 bytes(range(256))])
        return bytes(self.random.choice(letters) for _ in range(size))

    def several(self, **kwargs):
        return [self.payload(**kwargs) for _ in range(self.random.randrange(1, 5))]

    def both_ways(self, framing, theirs, rounds=ROUNDS, **kwargs):
        """`theirs` makes bytes of a payload. What they write is what we write, and we read it."""
        for _ in range(rounds):
            frames = self.several(**kwargs)
            wire = b"".join(theirs(frame) for frame in frames)
            self.assertEqual(wire, b"".join(self.encode(framing, frame) for frame in frames))
            self.assertEqual((frames, len(wire)), self.decode(framing, wire))

    def test_length_fields_are_those_of_struct(self):
        for framing, code in (("u16", ">H"), ("u32", ">I"), ("u32-little", "<I")):
            self.both_ways(framing, lambda data, code=code: struct.pack(code, len(data)) + data,
                           rounds=60)

    def test_netstrings_are_as_their_definition_says(self):
        self.both_ways("netstring", lambda data: b"%d:%s," % (len(data), data), rounds=100)

    def test_lines_are_as_python_joins_them(self):
        letters = bytes(c for c in range(256) if c not in b"\r\n")
        self.both_ways("line", lambda data: data + b"\n", rounds=60, letters=letters)
        self.both_ways("crlf", lambda data: data + b"\r\n", rounds=60, letters=letters)

    def test_varint_prefix_is_protobufs(self):
        write = package(self, "google.protobuf.internal.encoder")._VarintBytes
        self.both_ways("varint", lambda data: write(len(data)) + data)

    def test_every_varint_is_judged_as_protobuf_does(self):
        read = package(self, "google.protobuf.internal.decoder")._DecodeVarint
        for _ in range(ROUNDS * 5):
            size = self.random.randrange(1, 12)
            wire = bytes(self.random.choice([0x80, 0x81, 0xff, self.random.randrange(128, 256)])
                         for _ in range(size - 1)) + bytes([self.random.choice([0, 1, 2, 127])])
            try:
                value, used = read(wire, 0)
            except Exception:  # pylint: disable=broad-except
                value, used = None, None
            answer = self.do("decode", "varint-lax", 1 << 30, 1, wire.hex())
            if value is None:
                self.check("EPROTO", answer)
                continue
            # protobuf cuts what has more than 64 bits off; for a length that is no number.
            if used == 10 and wire[9] > 1:
                self.check("EPROTO", answer)
            elif value > 1 << 30:
                self.check("EMSGSIZE", answer)
            else:
                self.check("ETRUNCATED" if value else "EOF", answer)

    def test_cobs_both_ways(self):
        cobs = package(self, "cobs.cobs")
        self.both_ways("cobs", lambda data: cobs.encode(data) + b"\0")

    def test_bytes_of_chance_are_cobs_for_both_or_neither(self):
        cobs = package(self, "cobs.cobs")
        good = 0
        for _ in range(ROUNDS * 3):
            size = self.random.randrange(1, 9)
            raw = bytes(self.random.choice([1, 1, 2, 3, 4, 5, 255]) for _ in range(size))
            try:
                want = cobs.decode(raw)
            except cobs.DecodeError:
                self.decode("cobs", raw + b"\0", err="EPROTO")
                continue
            self.assertEqual(([want], size + 1), self.decode("cobs", raw + b"\0"))
            good += 1
        self.assertGreater(good, ROUNDS // 4)

    def test_slip_both_ways(self):
        slip = package(self, "sliplib")
        for _ in range(ROUNDS):
            frames = self.several(least=1)
            theirs = b"".join(slip.encode(frame) + b"\xc0" for frame in frames)
            ours = b"".join(self.encode("slip", frame) for frame in frames)
            self.assertEqual((frames, len(theirs)), self.decode("slip", theirs))
            driver = slip.Driver()
            driver.receive(ours)
            self.assertEqual(frames, [driver.get(block=False) for _ in frames])

    def test_bad_slip_is_refused_as_sliplib_does(self):
        slip = package(self, "sliplib")
        for _ in range(ROUNDS * 3):
            size = self.random.randrange(1, 7)
            raw = bytes(self.random.choice([0x61, 0xdb, 0xdc, 0xdd]) for _ in range(size))
            if slip.is_valid(raw):
                self.assertEqual(([slip.decode(raw)], size + 1), self.decode("slip", raw + b"\xc0"))
            else:
                self.decode("slip", raw + b"\xc0", err="EPROTO")

    def test_crc32_and_sum_are_zlibs_and_pythons(self):
        for size in list(range(70)) + EDGES:
            data = peers.payload(size)
            for name, want in (("crc32", zlib.crc32(data)), ("sum32", sum(data))):
                self.assertEqual("x%08x" % want, self.ok("sum", name, data.hex() or "-").sum)

    def test_utf8_is_judged_as_python_does(self):
        edges = [0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0,
                 0xe1, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff]
        good = 0
        for n in range(ROUNDS * 10):
            data = bytes(self.random.choice(edges) for _ in range(self.random.randrange(1, 5)))
            if n % 3 == 0:
                data = b"ascii " * self.random.randrange(20) + data
            elif n % 3 == 1:
                text = "".join(chr(self.random.choice([0x41, 0xe4, 0x7ff, 0x800, 0xfffd, 0x10ffff]))
                               for _ in range(self.random.randrange(1, 30)))
                data = text.encode()[:self.random.randrange(1, 100)]
            decoder = codecs.getincrementaldecoder("utf-8")()
            answer = self.do("utf8", self.random.choice([0, 1, 3]), data.hex())
            try:
                decoder.decode(data)
                if data[-2:-1] == b"\xed" and data[-1] >= 0xa0:  # Python waits for the third byte
                    decoder.decode(b"\x80")
            except UnicodeDecodeError:
                self.check("EILSEQ", answer)
                continue
            self.check("OK", answer)
            self.assertEqual(decoder.getstate()[0] != b"", answer.open == 1, data)
            good += 1
        self.assertGreater(good, ROUNDS * 3)


if __name__ == "__main__":
    peers.main()
