#!/usr/bin/env python3
"""Unix sockets between netio and Python's socket module: stream, datagram, sequenced packets."""
import os
import socket
import stat
import sys
import threading

import peers
from peers import LATE, MIB, crc, payload, receive, receive_all


class Unix(peers.Case):
    def setUp(self):
        super().setUp()
        self.path = self.folder() + "/s"

    def names(self):
        """A path and an abstract name, as Python and as netio write them."""
        names = [(self.path, "unix:" + self.path)]
        if sys.platform.startswith("linux"):
            word = "netio-test-%d" % os.getpid()
            names.append(("\0" + word, "unix:@" + word))
        return names

    def socket(self, type, name=None):
        s = self.keep(socket.socket(socket.AF_UNIX, type))
        s.settimeout(10)
        if name is not None:
            s.bind(name)
        return s


class Stream(Unix):
    def test_8_mib_both_ways_to_a_python_server(self):
        data = payload(8 * MIB)
        for name, text in self.names():
            with self.subTest(text):
                server = self.socket(socket.SOCK_STREAM, name)
                server.listen(1)
                self.ok("connect", "c", text, 1000)
                s = self.keep(server.accept()[0])
                s.settimeout(10)
                self.driver.send("exchange", "c", "random:%d:1" % (8 * MIB), 20000)

                def send():
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)

                sender = threading.Thread(target=send)
                sender.start()
                got = receive_all(s)
                sender.join()
                said = self.check("OK", self.driver.reply())
                self.assertEqual((8 * MIB, crc(data)), (said.n, said.crc))
                self.assertEqual((8 * MIB, said.sent_crc), (len(got), crc(got)))
                self.ok("close", "c")
                server.close()

    def test_8_mib_come_back_to_a_python_client(self):
        data = payload(8 * MIB)
        for name, text in self.names():
            with self.subTest(text):
                self.assertEqual(text, self.ok("listen", "l", text).addr)
                s = self.socket(socket.SOCK_STREAM)
                s.connect(name)
                self.ok("accept", "s", "l", 1000)
                self.driver.send("echo", "s", 20000)

                def send():
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)

                sender = threading.Thread(target=send)
                sender.start()
                got = receive(s, 8 * MIB)
                sender.join()
                self.check("OK", self.driver.reply())
                self.assertEqual(crc(data), crc(got))
                self.ok("close", "s"), self.ok("close", "l")

    def test_peer_that_leaves_with_unread_bytes_is_econnreset(self):
        server = self.socket(socket.SOCK_STREAM, self.path)
        server.listen(1)
        self.ok("connect", "c", "unix:" + self.path, 1000)
        s, _ = server.accept()
        self.ok("send", "c", "text:unread", 1000)
        s.close()
        self.check("ECONNRESET", self.do("recv", "c", 10, 1000))
        self.check("EPIPE", self.do("send", "c", "text:x", 1000))

    def test_full_backlog_is_eagain_by_hand_and_waited_out_by_connect(self):
        server = self.socket(socket.SOCK_STREAM, self.path)
        server.listen(0)
        text = "unix:" + self.path
        self.ok("start", "a", text)
        answer = self.check("EAGAIN", self.do("start", "b", text))
        self.assertNotIn("pending", dict(answer.pairs))
        answer = self.check("ETIMEDOUT", self.do("connect", "b", text, 150))
        self.assertTrue(150 <= answer.ms < LATE, answer)
        self.driver.send("connect", "b", text, 5000)
        server.accept()[0].close()
        self.check("OK", self.driver.reply())

    def test_missing_file_is_enoent_and_deserted_one_econnrefused(self):
        self.check("ENOENT", self.do("connect", "c", "unix:" + self.path, 1000))
        self.socket(socket.SOCK_STREAM, self.path).close()
        self.check("ECONNREFUSED", self.do("connect", "c", "unix:" + self.path, 1000))


class Files(Unix):
    def test_deserted_socket_file_is_replaced(self):
        self.socket(socket.SOCK_STREAM, self.path).close()
        self.ok("listen", "l", "unix:" + self.path)
        s = self.socket(socket.SOCK_STREAM)
        s.connect(self.path)
        self.ok("accept", "s", "l", 1000)

    def test_live_python_server_keeps_its_name(self):
        server = self.socket(socket.SOCK_STREAM, self.path)
        server.listen(5)
        inode = os.stat(self.path).st_ino
        self.check("EADDRINUSE", self.do("listen", "l", "unix:" + self.path))
        self.check("EADDRINUSE", self.do("unlink", "unix:" + self.path))
        self.assertEqual(inode, os.stat(self.path).st_ino)

    def test_regular_file_is_left_alone(self):
        with open(self.path, "w") as f:
            f.write("precious")
        self.check("EINVAL", self.do("listen", "l", "unix:" + self.path))
        self.check("EINVAL", self.do("unlink", "unix:" + self.path))
        with open(self.path) as f:
            self.assertEqual("precious", f.read())

    def test_unlink_removes_the_file_of_a_closed_listener(self):
        self.ok("listen", "l", "unix:" + self.path)
        self.ok("close", "l")
        self.ok("unlink", "unix:" + self.path)
        self.assertFalse(os.path.exists(self.path))
        self.check("ENOENT", self.do("unlink", "unix:" + self.path))

    def test_mode_of_the_file_is_as_asked_and_keeps_others_out(self):
        self.ok("listen", "l", "unix:" + self.path, "mode=0600")
        self.assertEqual(0o600, stat.S_IMODE(os.stat(self.path).st_mode))
        if os.getuid() != 0:
            self.skipTest("only root can become another user")
        os.chmod(os.path.dirname(self.path), 0o755)

        def nobody():
            os.setgid(65534), os.setuid(65534)

        try:
            other = self.start(preexec_fn=nobody)
        except OSError as e:
            self.skipTest("another user may not run the driver: %s" % e)
        self.check("EACCES", other.do("connect", "c", "unix:" + self.path, 1000))
        self.check("EACCES", other.do("listen", "l", "unix:/netio-no-right"))


class Messages(Unix):
    def test_datagrams_cross_with_the_senders_path(self):
        for name, text in self.names():
            with self.subTest(text):
                s = self.socket(socket.SOCK_DGRAM, name)
                ours = text + ".ours"
                self.assertEqual(ours, self.ok("bind", "u", ours).addr)
                for data in (b"", b"x", payload(1472), payload(65507)):
                    s.sendto(data, name + ".ours")
                    got = self.ok("recvfrom", "u", 100000, 1000)
                    self.assertEqual((len(data), crc(data)), (got.length, got.crc))
                    self.assertEqual(text, got.sender)
                    self.ok("sendto", "u", text, "random:%d:1" % len(data), 1000)
                    got, sender = s.recvfrom(100000)
                    self.assertEqual((len(data), ours), (len(got), peers.text_of(sender)))
                self.ok("close", "u")
                s.close()

    def test_unnamed_senders_datagram_arrives(self):
        self.ok("bind", "u", "unix:" + self.path)
        s = self.socket(socket.SOCK_DGRAM)
        s.sendto(b"from nobody", self.path)
        self.assertEqual(b"from nobody", self.ok("recvfrom", "u", 100, 1000).bytes)

    def test_connected_datagram_peer_that_is_gone_is_econnrefused(self):
        s = self.socket(socket.SOCK_DGRAM, self.path)
        self.ok("connect", "c", "unix:" + self.path, 1000, "type=dgram")
        self.ok("send", "c", "text:x", 1000)
        self.assertEqual(b"x", s.recv(10))
        s.close()
        self.check("ECONNREFUSED", self.do("send", "c", "text:x", 1000))

    def test_packets_keep_their_boundaries(self):
        server = self.socket(socket.SOCK_SEQPACKET, self.path)
        server.listen(1)
        self.ok("connect", "c", "unix:" + self.path, 1000, "type=seqpacket")
        s = self.keep(server.accept()[0])
        for data in (b"1", payload(4096), payload(65536)):
            s.send(data)
            got = self.ok("recv", "c", 100000, 1000)
            self.assertEqual((len(data), crc(data)), (got.n, got.crc))
        for size in (1, 4096, 65536):
            self.ok("send", "c", "random:%d:1" % size, 1000)
        self.assertEqual([1, 4096, 65536], [len(s.recv(100000)) for _ in range(3)])
        self.check("EINVAL", self.do("send", "c", "text:", 1000))
        s.close()
        self.check("EOF", self.do("recv", "c", 10, 1000))

    def test_packet_listener_serves_python(self):
        self.ok("listen", "l", "unix:" + self.path, "type=seqpacket")
        s = self.socket(socket.SOCK_SEQPACKET)
        s.connect(self.path)
        self.ok("accept", "s", "l", 1000)
        s.send(b"one"), s.send(b"two")
        self.assertEqual(b"one", self.ok("recv", "s", 100, 1000).bytes)
        self.assertEqual(b"two", self.ok("recv", "s", 100, 1000).bytes)


if __name__ == "__main__":
    if not hasattr(socket, "AF_UNIX") or not peers.is_native():
        print("SKIP no Unix sockets between this driver and Python")
        sys.exit(77)
    peers.main()
