#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""The PROXY protocol with HAProxy, both ways, and tunnels through microsocks and tinyproxy: netio's
codecs say what to send and judge what comes, Python moves the bytes."""
import os
import socket
import subprocess
import threading

import peers
from codec import Codec

HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
%s
"""
CRC32C, UNIQUE_ID = 3, 5


class Case(peers.unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.codec = Codec()

    @classmethod
    def tearDownClass(cls):
        assert cls.codec.end() == 0

    program = peers.Case.program
    folder = peers.Case.folder
    keep = peers.Case.keep

    def listening(self, port, host="127.0.0.1"):
        """Wait until somebody takes connections there."""
        def there():
            s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            try:
                s.connect((host, port))
                return True
            except OSError:
                return False
            finally:
                s.close()
        peers.wait_until(there, 10, "port %d" % port)

    def connect(self, port, host="127.0.0.1"):
        s = self.keep(socket.create_connection((host, port), 10))
        s.settimeout(10)
        return s

    def listen(self, host="127.0.0.1"):
        s = self.keep(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
        s.bind((host, 0))
        s.listen()
        s.settimeout(10)
        return s, s.getsockname()[1]

    def haproxy(self, text):
        path = os.path.join(self.folder(), "haproxy.cfg")
        with open(path, "w") as f:
            f.write(HAPROXY % text)
        self.program("haproxy", "-q", "-db", "-f", path)


class Haproxy(Case):
    def test_its_headers_tell_who_the_client_is(self):
        options = {"send-proxy": 1, "send-proxy-v2": 2,
                   "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority": 2}
        for word, version in options.items():
            for host in ("127.0.0.1", "::1"):
                with self.subTest(word=word, host=host):
                    backend, port = self.listen()
                    front = peers.free_port()
                    self.haproxy("listen l\n    bind [::]:%d v4v6\n    unique-id-format %%[uuid]\n"
                                 "    server s 127.0.0.1:%d %s\n" % (front, port, word))
                    self.listening(front)
                    s = self.connect(front, host)
                    s.sendall(b"hello")
                    while True:                        # those that only looked if it was there
                        got, _ = backend.accept()
                        got.settimeout(10)
                        data = self.keep(got).recv(4096)
                        err, n, (src, dst), tlvs = self.codec.proxy(data)
                        self.assertEqual("OK", err, data)
                        if src.endswith(":%d" % s.getsockname()[1]):
                            break
                    while len(data) < n + 5:
                        data += got.recv(4096)
                    self.assertEqual(b"hello", data[n:])
                    self.assertEqual(b"PROXY " if version == 1 else b"\r\n\r\n\0\r", data[:6])
                    self.assertEqual(peers.text_of(s.getsockname()), src)
                    self.assertEqual(peers.text_of(s.getpeername()), dst)
                    if "crc32c" in word:
                        self.assertEqual([4, 36], [len(v) for t, v in tlvs
                                                   if t in (CRC32C, UNIQUE_ID)])
                        broken = bytearray(data)
                        broken[17] ^= 1                # in the source address
                        self.assertEqual("EBADMSG", self.codec.proxy(bytes(broken))[0])

    def test_it_takes_ours(self):
        front = peers.free_port()
        self.haproxy("listen l\n    mode http\n    bind 127.0.0.1:%d accept-proxy\n"
                     "    http-request return status 200 content-type text/plain lf-string "
                     "\"%%[src] %%[src_port] %%[dst] %%[dst_port]\"\n" % front)
        self.listening(front)
        rows = [("192.0.2.1:1234", "198.51.100.2:443", "192.0.2.1 1234 198.51.100.2 443"),
                ("[2001:db8::1]:1", "[2001:db8::2]:65535", "2001:db8::1 1 2001:db8::2 65535")]
        for src, dst, want in rows:
            for version, checksum in ((1, False), (2, False), (2, True)):
                with self.subTest(src=src, version=version, checksum=checksum):
                    s = self.connect(front)
                    header = self.codec.header(version, src, dst, checksum)
                    s.sendall(header + b"GET / HTTP/1.0\r\n\r\n")
                    self.assertIn(want.encode(), peers.receive_all(s))
                    if checksum:                       # and it would have noticed
                        s = self.connect(front)
                        s.sendall(header[:-1] + bytes([header[-1] ^ 1]) + b"GET / HTTP/1.0\r\n\r\n")
                        try:
                            self.assertNotIn(want.encode(), peers.receive_all(s))
                        except ConnectionResetError:
                            pass


class Tunnel(Case):
    def dial(self, proxy, target, extra=b""):
        """Through the proxy by netio's machine; its verdict, the socket, bytes behind the answer."""
        words = self.codec.do("tunnel", proxy, target)
        self.assertEqual("OK", words[0])
        s = self.connect(int(words[1].rsplit(":", 1)[1]))
        s.sendall(bytes.fromhex(words[2]))
        while True:
            data = s.recv(4096)
            if not data:
                return "EOF", s, b""
            err, state, used, out = self.codec.do("told", data)
            if out != "-":
                s.sendall(bytes.fromhex(out))
            if err != "OK" or state == "1":
                return err, s, data[int(used):]

    def target(self, greet):
        """A server that greets, if it should, and echoes what it gets in capitals."""
        listener, port = self.listen()

        def serve():
            while True:
                try:
                    s, _ = listener.accept()
                except OSError:
                    return
                with s:
                    s.settimeout(10)
                    try:
                        if greet:
                            s.sendall(b"welcome")
                        s.sendall(s.recv(100).upper())
                    except OSError:
                        pass                           # who only looked if it was there
        threading.Thread(target=serve, daemon=True).start()
        return port

    def check_through(self, proxy, names=("127.0.0.1", "localhost")):
        for greet in (False, True):
            port = self.target(greet)
            for name in names:
                with self.subTest(proxy=proxy, name=name, greet=greet):
                    err, s, rest = self.dial(proxy, "%s:%d" % (name, port))
                    self.assertEqual("OK", err)
                    s.sendall(b"hello")
                    want = (b"welcome" if greet else b"") + b"HELLO"
                    while len(rest) < len(want):
                        piece = s.recv(100)
                        self.assertTrue(piece)
                        rest += piece
                    self.assertEqual(want, rest)

    def test_microsocks_lets_through(self):
        port = peers.free_port()
        self.program("microsocks", "-i", "127.0.0.1", "-p", port, stderr=subprocess.DEVNULL)
        self.listening(port)
        self.check_through("socks5://127.0.0.1:%d" % port)
        err, _, _ = self.dial("socks5://127.0.0.1:%d" % port, "127.0.0.1:%d" % peers.free_port())
        self.assertEqual("ECONNREFUSED", err)

    def test_microsocks_wants_its_user(self):
        port = peers.free_port()
        self.program("microsocks", "-i", "127.0.0.1", "-p", port, "-u", "me", "-P", "a:b@c",
                     stderr=subprocess.DEVNULL)
        self.listening(port)
        self.check_through("socks5://me:a%%3Ab%%40c@127.0.0.1:%d" % port)
        target = "127.0.0.1:%d" % self.target(False)
        for user in ("", "me:wrong@", "you:a%3Ab%40c@"):
            with self.subTest(user):
                err, _, _ = self.dial("socks5://%s127.0.0.1:%d" % (user, port), target)
                self.assertEqual("EACCES", err)

    def tinyproxy(self, *lines):
        port = peers.free_port()
        path = os.path.join(self.folder(), "tinyproxy.conf")
        with open(path, "w") as f:
            f.write("\n".join(("Port %d" % port, "Listen 127.0.0.1", "Timeout 20", "MaxClients 20",
                               "LogLevel Critical") + lines) + "\n")
        self.program("tinyproxy", "-d", "-c", path)
        self.listening(port)
        return port

    def test_tinyproxy_lets_through(self):
        port = self.tinyproxy()
        self.check_through("http://127.0.0.1:%d" % port)
        err, _, _ = self.dial("http://127.0.0.1:%d" % port, "127.0.0.1:%d" % peers.free_port())
        self.assertIn(err, ("ECONNREFUSED", "EHOSTUNREACH"))

    def test_tinyproxy_wants_its_user(self):
        port = self.tinyproxy("BasicAuth me secret")
        self.check_through("http://me:secret@127.0.0.1:%d" % port)
        target = "127.0.0.1:%d" % self.target(False)
        for user in ("", "me:wrong@"):
            err, _, _ = self.dial("http://%s127.0.0.1:%d" % (user, port), target)
            self.assertEqual("EACCES", err)

    def test_a_server_that_is_no_proxy_is_refused(self):
        port = self.target(True)                       # says "welcome"
        for kind in ("socks5", "http"):
            err, _, _ = self.dial("%s://127.0.0.1:%d" % (kind, port), "127.0.0.1:%d" % port)
            self.assertEqual("EPROTO", err)


if __name__ == "__main__":
    peers.main()
