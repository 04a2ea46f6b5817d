#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""netio against socat, ncat and curl, in both roles: what users will point at it first."""
import os
import subprocess

import peers
from peers import MIB, crc, payload, wait_until

# How each tool writes an address of each kind. ncat wants its family as a flag.
TCP = [("4", "127.0.0.1", "127.0.0.1"), ("6", "::1", "[::1]")]
PIPES = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)


class Tool(peers.Case):
    def listening(self, kind, start):
        """Start a listening tool on a port that was free; try another if somebody was quicker."""
        for _ in range(5):
            port = peers.free_port(kind)
            p = start(port)
            wait_until(lambda: p.poll() is not None or peers.port_in_use(port, kind), 10,
                       "a listening tool")
            if p.poll() is None:
                return p, port
        self.fail("the tool does not listen")

    def feed(self, p, data):
        """Give a tool its input and its end; return all its output."""
        out, _ = p.communicate(data, 20)
        return out


def listens_at(path):
    """Whether somebody listens there: the file comes before that."""
    with open("/proc/net/unix") as f:  # flag 0x10000
        rows = [line.split() for line in f.readlines()[1:]]
    return any(row[-1] == path and int(row[3], 16) & 0x10000 for row in rows)


class Socat(Tool):
    def test_8_mib_come_back_from_its_tcp_echo_server(self):
        for family, host, bracketed in TCP:
            with self.subTest(host):
                _, port = self.listening("tcp", lambda port: self.program(
                    "socat", "-t10", "TCP%s-LISTEN:%d,bind=%s" % (family, port, bracketed),
                    "EXEC:cat"))
                self.ok("connect", "c", "%s:%d" % (bracketed, port), 5000)
                said = self.ok("exchange", "c", "random:%d:1" % (8 * MIB), 20000)
                self.assertEqual((8 * MIB, said.sent_crc), (said.n, said.crc))
                self.ok("close", "c")

    def test_its_tcp_client_gets_8_mib_back(self):
        data = payload(8 * MIB)
        for family, host, bracketed in TCP:
            with self.subTest(host):
                at = self.ok("listen", "l", bracketed + ":0")
                p = self.program("socat", "-t10", "-", "TCP%s:%s:%d" % (family, bracketed, at.port),
                                 **PIPES)
                self.ok("accept", "s", "l", 5000)
                self.driver.send("echo", "s", 20000)
                # The echo ends with the client's half-close; ours must reach the client after it.
                self.driver.send("graceful", "s", 0, 5000)
                out = self.feed(p, data)
                self.check("OK", self.driver.reply())
                self.check("OK", self.driver.reply())
                self.assertEqual((len(data), crc(data), 0), (len(out), crc(out), p.wait()))
                self.ok("close", "l")

    def test_datagrams_come_back_from_its_udp_echo_server(self):
        for family, host, bracketed in TCP:
            with self.subTest(host):
                _, port = self.listening("udp", lambda port: self.program(
                    "socat", "-b65536", "UDP%s-LISTEN:%d,bind=%s" % (family, port, bracketed),
                    "PIPE"))
                self.ok("bind", "u", bracketed + ":0")
                # A pipe keeps no boundaries, so one datagram is on its way at a time. Empty ones
                # are the end to socat.
                for first, last in ((1, 64), (500, 520), (1460, 1472)):
                    self.ok("sizes", "u", "%s:%d" % (bracketed, port), first, last, 10000)
                self.ok("close", "u")

    def test_its_udp_client_gets_its_datagram_back(self):
        for family, host, bracketed in TCP:
            with self.subTest(host):
                at = self.ok("bind", "u", bracketed + ":0")
                p = self.program("socat", "-b65536", "-t0.3", "-",
                                 "UDP%s:%s:%d" % (family, bracketed, at.port), **PIPES)
                self.driver.send("echofrom", "u", 1, 10000)
                data = payload(1472)
                self.assertEqual(data, self.feed(p, data))
                self.check("OK", self.driver.reply())
                self.ok("close", "u")

    def test_8_mib_over_its_unix_stream_both_ways(self):
        path = self.folder() + "/s"
        self.program("socat", "-t10", "UNIX-LISTEN:" + path, "EXEC:cat")
        wait_until(lambda: listens_at(path))
        self.ok("connect", "c", "unix:" + path, 5000)
        said = self.ok("exchange", "c", "random:%d:1" % (8 * MIB), 20000)
        self.assertEqual((8 * MIB, said.sent_crc), (said.n, said.crc))

        data = payload(8 * MIB)
        self.ok("listen", "l", "unix:" + path + "2")
        p = self.program("socat", "-t10", "-", "UNIX-CONNECT:" + path + "2", **PIPES)
        self.ok("accept", "s", "l", 5000)
        self.driver.send("echo", "s", 20000)
        self.driver.send("graceful", "s", 0, 5000)
        self.assertEqual(crc(data), crc(self.feed(p, data)))
        self.check("OK", self.driver.reply())

    def test_abstract_name_is_the_same_to_both(self):
        name = "netio-socat-%d" % os.getpid()
        self.ok("listen", "l", "unix:@" + name)
        p = self.program("socat", "-", "ABSTRACT-CONNECT:" + name, **PIPES)
        self.ok("accept", "s", "l", 5000)
        self.driver.send("echo", "s", 5000)
        self.driver.send("close", "s")
        self.assertEqual(b"hello", self.feed(p, b"hello"))

    def test_unix_datagrams_cross(self):
        path = self.folder() + "/"
        self.ok("bind", "u", "unix:" + path + "ours")
        p = self.program("socat", "-t5", "-", "UNIX-SENDTO:%sours,bind=%stheirs" % (path, path),
                         **PIPES)
        p.stdin.write(b"question")
        p.stdin.flush()
        got = self.ok("recvfrom", "u", 100, 5000)
        self.assertEqual((b"question", "unix:" + path + "theirs"), (got.bytes, got.sender))
        self.ok("sendto", "u", got.sender, "text:answer", 1000)
        self.assertEqual(b"answer", os.read(p.stdout.fileno(), 100))

    def test_sequenced_packets_cross(self):
        path = self.folder() + "/s"
        self.ok("listen", "l", "unix:" + path, "type=seqpacket")
        p = self.program("socat", "-t5", "-", "UNIX-CONNECT:%s,type=5" % path, **PIPES)
        self.ok("accept", "s", "l", 5000)
        p.stdin.write(b"packet")
        p.stdin.flush()
        self.assertEqual(b"packet", self.ok("recv", "s", 100, 5000).bytes)
        self.ok("send", "s", "text:back", 1000)
        self.assertEqual(b"back", os.read(p.stdout.fileno(), 100))

    def test_keepalive_and_nodelay_of_its_own_do_not_matter(self):
        at = self.ok("listen", "l", ":0")
        p = self.program("socat", "-", "TCP4:127.0.0.1:%d,keepalive,nodelay,linger=0" % at.port,
                         **PIPES)
        self.ok("accept", "s", "l", 5000)
        p.stdin.write(b"x")
        p.stdin.flush()
        self.assertEqual(b"x", self.ok("recv", "s", 10, 5000).bytes)
        p.kill()  # linger 0: the kernel closes with a reset
        self.check("ECONNRESET", self.do("recv", "s", 10, 5000))


class Ncat(Tool):
    def test_it_gets_8_mib_as_server_and_as_client(self):
        for family, host, bracketed in TCP:
            with self.subTest(host):
                p, port = self.listening("tcp", lambda port: self.program(
                    "ncat", "-" + family, "-l", host, port, "--recv-only",
                    stdout=subprocess.PIPE))
                self.ok("connect", "c", "%s:%d" % (bracketed, port), 5000)
                self.driver.send("sendall", "c", "random:%d:1" % (8 * MIB), 20000)
                self.driver.send("graceful", "c", 0, 5000)
                out = self.feed(p, None)
                sent = self.check("OK", self.driver.reply())
                self.check("OK", self.driver.reply())
                self.assertEqual((8 * MIB, sent.crc), (len(out), crc(out)))

                at = self.ok("listen", "l", bracketed + ":0")
                p = self.program("ncat", "-" + family, host, at.port, "--recv-only",
                                 stdout=subprocess.PIPE)
                self.ok("accept", "s", "l", 5000)
                self.driver.send("sendall", "s", "random:%d:2" % (8 * MIB), 20000)
                self.driver.send("close", "s")
                out = self.feed(p, None)
                sent = self.check("OK", self.driver.reply())
                self.check("OK", self.driver.reply())
                self.assertEqual((8 * MIB, sent.crc), (len(out), crc(out)))
                self.ok("close", "l")

    def test_it_sends_8_mib_as_server_and_as_client(self):
        data = payload(8 * MIB)
        for family, host, bracketed in TCP:
            with self.subTest(host):
                p, port = self.listening("tcp", lambda port: self.program(
                    "ncat", "-" + family, "-l", host, port, "--send-only", stdin=subprocess.PIPE))
                self.ok("connect", "c", "%s:%d" % (bracketed, port), 5000)
                self.driver.send("recvall", "c", 20000)
                self.feed(p, data)
                got = self.check("OK", self.driver.reply())
                self.assertEqual((len(data), crc(data)), (got.n, got.crc))
                self.ok("close", "c")

                at = self.ok("listen", "l", bracketed + ":0")
                p = self.program("ncat", "-" + family, host, at.port, "--send-only",
                                 stdin=subprocess.PIPE)
                self.ok("accept", "s", "l", 5000)
                self.driver.send("recvall", "s", 20000)
                self.feed(p, data)
                got = self.check("OK", self.driver.reply())
                self.assertEqual((len(data), crc(data)), (got.n, got.crc))
                self.ok("close", "s"), self.ok("close", "l")

    def test_datagrams_come_back_from_its_udp_echo_server(self):
        for family, host, bracketed in TCP:
            with self.subTest(host):
                _, port = self.listening("udp", lambda port: self.program(
                    "ncat", "-" + family, "-u", "-l", host, port, "-e", "/bin/cat"))
                self.ok("bind", "u", bracketed + ":0")
                self.ok("sizes", "u", "%s:%d" % (bracketed, port), 1, 64, 10000)
                self.ok("sizes", "u", "%s:%d" % (bracketed, port), 1400, 1472, 10000)
                self.ok("close", "u")

    def test_its_udp_client_is_answered(self):
        at = self.ok("bind", "u", ":0")
        for family, host, bracketed in TCP:
            with self.subTest(host):
                p = self.program("ncat", "-" + family, "-u", host, at.port, **PIPES)
                p.stdin.write(b"question")
                p.stdin.flush()
                got = self.ok("recvfrom", "u", 100, 5000)
                self.assertEqual(b"question", got.bytes)
                self.ok("sendto", "u", got.sender, "text:answer", 1000)
                self.assertEqual(b"answer", os.read(p.stdout.fileno(), 100))

    def test_unix_streams_cross_in_both_roles(self):
        path = self.folder() + "/s"
        p = self.program("ncat", "-U", "-l", path, **PIPES)
        # ncat's file exists a moment before it listens.
        wait_until(lambda: self.do("connect", "c", "unix:" + path, 1000).err == "OK")
        self.ok("sendall", "c", "text:question", 1000)
        self.assertEqual(b"question", os.read(p.stdout.fileno(), 100))
        p.stdin.write(b"answer")
        p.stdin.flush()
        self.assertEqual(b"answer", self.ok("recv", "c", 100, 5000).bytes)

        self.ok("listen", "l", "unix:" + path + "2")
        p = self.program("ncat", "-U", path + "2", **PIPES)
        self.ok("accept", "s", "l", 5000)
        p.stdin.write(b"hello")
        p.stdin.flush()
        self.assertEqual(b"hello", self.ok("recv", "s", 100, 5000).bytes)
        p.stdin.close()
        self.check("EOF", self.do("recv", "s", 100, 5000))
        p.stdin = None

    def test_unix_datagram_arrives(self):
        path = self.folder() + "/s"
        self.ok("bind", "u", "unix:" + path)
        p = self.program("ncat", "-u", "-U", path, stdin=subprocess.PIPE)
        p.stdin.write(b"logged")
        p.stdin.flush()
        self.assertEqual(b"logged", self.ok("recvfrom", "u", 100, 5000).bytes)


class Curl(Tool):
    BODY = b"it works" * 1000

    def answer(self):
        """Serve one HTTP/1.0 request as a careful server would."""
        self.ok("accept", "s", "l", 5000)
        request = self.ok("recv", "s", 500, 5000)
        self.assertTrue(request.bytes.startswith(b"GET /file HTTP/1."), request)
        head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.BODY)
        path = self.folder() + "/body"
        with open(path, "wb") as f:
            f.write(self.BODY)
        self.ok("sendall", "s", "hex:" + head.hex(), 1000)
        self.ok("sendfile", "s", path, 0, len(self.BODY), 1000)
        self.ok("graceful", "s", 100000, 5000)

    def test_it_gets_a_file_over_a_unix_socket(self):
        path = self.folder() + "/s"
        self.ok("listen", "l", "unix:" + path)
        p = self.program("curl", "-sS", "--max-time", "10", "--unix-socket", path,
                         "http://localhost/file", stdout=subprocess.PIPE)
        self.answer()
        self.assertEqual((self.BODY, 0), (self.feed(p, None), p.wait()))

    def test_it_gets_a_file_over_tcp(self):
        at = self.ok("listen", "l", ":0")
        for host in ("127.0.0.1", "[::1]"):
            with self.subTest(host):
                p = self.program("curl", "-gsS", "--noproxy", "*", "--max-time", "10",
                                 "http://%s:%d/file" % (host, at.port), stdout=subprocess.PIPE)
                self.answer()
                self.assertEqual((self.BODY, 0), (self.feed(p, None), p.wait()))

    def test_it_leaves_in_the_middle_and_the_server_goes_on(self):
        at = self.ok("listen", "l", ":0")
        p = self.program("curl", "-sS", "--noproxy", "*", "http://127.0.0.1:%d/file" % at.port,
                         stdout=subprocess.PIPE)
        self.ok("accept", "s", "l", 5000)
        p.kill()
        p.wait()
        answer = self.do("sendall", "s", "random:%d:1" % (16 * MIB), 5000)
        self.assertIn(answer.err, ("ECONNRESET", "EPIPE"), answer)
        self.ok("close", "s")
        p = self.program("curl", "-sS", "--noproxy", "*", "http://127.0.0.1:%d/file" % at.port,
                         stdout=subprocess.PIPE)
        self.answer()
        self.assertEqual(self.BODY, self.feed(p, None))


if __name__ == "__main__":
    peers.need_native()
    peers.main()
