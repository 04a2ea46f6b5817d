#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""STUN, examples/common/stun.h, with coturn: our client asks its server, its client asks ours; and
on bytes that were made here from the text of RFC 8489 alone."""
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import tempfile
import zlib

import peers

BINDING = b"\x00\x01"
COOKIE = b"\x21\x12\xa4\x42"
FINGERPRINT = 0x8028


def message(kind, number, *attributes):
    """A message by the RFC; the fingerprint's value is made here."""
    out = b""
    for what, value in attributes:
        if what == FINGERPRINT:
            head = kind + struct.pack(">H", len(out) + 8) + COOKIE + number
            value = struct.pack(">I", zlib.crc32(head + out) ^ 0x5354554e)
        out += struct.pack(">HH", what, len(value)) + value + b"\0" * (-len(value) % 4)
    return kind + struct.pack(">H", len(out)) + COOKIE + number + out


def attributes_of(data):
    out, at = [], 20
    while at < len(data):
        what, size = struct.unpack(">HH", data[at:at + 4])
        out.append((what, data[at + 4:at + 4 + size]))
        at += 4 + size + -size % 4
    return dict(out)


class Stun(peers.Case):
    """The driver does next to nothing with sockets, so it is a program of this system under every
    NETIO_DRIVER."""

    @classmethod
    def setUpClass(cls):
        cls.build = tempfile.mkdtemp(prefix="netio-")
        cls.command = os.path.join(cls.build, "stun_driver")
        source = os.environ.get("NETIO_SOURCE", os.path.join(peers.HERE, "..", ".."))
        words = shlex.split(os.environ.get("CC", "cc")) + shlex.split(
            os.environ.get("CFLAGS", "-O1 -g"))
        words += ["-I" + source, os.path.join(peers.HERE, "stun_driver.c"), "-o", cls.command,
                  "-pthread"]
        subprocess.run(words, check=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.build, True)

    def setUp(self):
        pass  # no driver that waits for commands

    def ask(self, where):
        got = subprocess.run([self.command, "ask", where], stdout=subprocess.PIPE, timeout=30,
                             check=False)
        return peers.Reply(got.stdout.decode())

    def serve(self, where="127.0.0.1:0"):
        p = self.program(self.command, "serve", where, stdout=subprocess.PIPE)
        line = p.stdout.readline().decode()
        return re.match(r"listening on (\S+)", line).group(1)

    def client(self, where):
        s = self.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        s.settimeout(10)
        s.connect(("127.0.0.1", int(where.rsplit(":", 1)[1])))
        return s

    def test_coturn_answers_our_client(self):
        port, folder = peers.free_port("udp"), self.folder()
        self.program("turnserver", "-n", "-S", "--no-tls", "--no-dtls", "--no-cli",
                     "-L", "127.0.0.1", "-L", "::1", "-p", port, "--log-file", "stdout",
                     "--pidfile", folder + "/pid", "--userdb", folder + "/db",
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peers.wait_until(lambda: peers.port_in_use(port, "udp"), 40, "coturn")
        for host in "127.0.0.1", "[::1]":
            answer = self.check("OK", self.ask("%s:%d" % (host, port)))
            self.assertEqual((answer.local, 0, 0, 1), (answer.addr, answer.error, answer.unknown,
                                                       answer.fingerprint), answer)
            self.assertIn(b"oturn", bytes.fromhex(answer.software))

    def test_our_server_answers_coturns_client(self):
        for host in "127.0.0.1", "::1":
            where = self.serve("[::1]:0" if ":" in host else host + ":0")
            p = self.program("turnutils_stunclient", "-p", where.rsplit(":", 1)[1], host,
                             stdout=subprocess.PIPE)
            out = p.communicate(timeout=30)[0].decode()
            self.assertEqual(0, p.returncode, out)
            self.assertRegex(out, r"reflexive addr: \[?%s\]?:\d+" % re.escape(host))

    def test_our_server_answers_our_client(self):
        answer = self.check("OK", self.ask(self.serve()))
        self.assertEqual(answer.local, answer.addr)
        self.assertEqual(b"netio's test", bytes.fromhex(answer.software))

    def test_answers_are_as_the_rfc_says(self):
        s = self.client(self.serve())
        number = bytes(range(12))
        s.send(message(BINDING, number, (0x8022, b"me"), (FINGERPRINT, b"")))
        got = s.recv(2000)
        self.assertEqual(b"\x01\x01", got[:2])
        self.assertEqual(COOKIE + number, got[4:20])
        fields = attributes_of(got)
        family, port, ip = struct.unpack(">xBH4s", fields[0x0020])
        self.assertEqual(1, family)
        self.assertEqual(s.getsockname()[1], port ^ 0x2112)
        self.assertEqual(b"\x7f\0\0\1", bytes(a ^ b for a, b in zip(ip, COOKIE)))
        self.assertEqual(message(b"\x01\x01", number, *fields.items()), got)  # and the sum

        s.send(message(BINDING, number, (0x0003, b"\0\0\0\2"), (0x7fff, b"")))  # CHANGE-REQUEST
        got = s.recv(2000)
        fields = attributes_of(got)
        self.assertEqual(b"\x01\x11", got[:2])
        self.assertEqual(b"\0\0\4\x14", fields[0x0009][:4])
        self.assertEqual(b"\0\3\x7f\xff", fields[0x000a])
        self.assertNotIn(FINGERPRINT, fields)

    def test_a_server_says_nothing_to_what_is_no_request(self):
        s = self.client(self.serve())
        good = message(BINDING, b"good" * 3)
        finger = bytearray(message(BINDING, b"bad." * 3, (FINGERPRINT, b"")))
        finger[-1] ^= 1
        for bad in (b"", b"x", good[:-1], good + b"\0", good + b"\0\0\0\0", b"\x40" + good[1:],
                    message(b"\x01\x01", b"bad." * 3), message(b"\x00\x11", b"bad." * 3),
                    message(b"\x00\x03", b"bad." * 3), bytes(finger), b"\0" * 2000,
                    good[:4] + b"\0\0\0\0" + good[8:]):
            s.send(bad)
            s.send(good)  # what is answered first is the answer to this
            self.assertEqual(b"good" * 3, s.recv(2000)[8:20], bad[:40])


if __name__ == "__main__":
    peers.main()
