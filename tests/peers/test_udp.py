#!/usr/bin/env python3
"""UDP between netio and Python's socket module: boundaries, sizes, senders, refusals."""
import socket
import threading

import peers
from peers import FAMILIES, LATE, crc, payload, text_of, wait_until


class Udp(peers.Case):
    def bound(self, family=socket.AF_INET, host="127.0.0.1"):
        s = self.keep(socket.socket(family, socket.SOCK_DGRAM))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        s.bind((host, 0))
        s.settimeout(5)
        return s

    def ours(self, host="127.0.0.1", *options):
        return self.ok("bind", "u", "[::1]:0" if ":" in host else host + ":0",
                       "set=RCVBUF:1000000", *options)


class Boundaries(Udp):
    def test_every_size_to_1472_comes_back_from_netio(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                at, s = self.ours(host), self.bound(family, host)
                self.driver.send("echofrom", "u", 1473, 20000)
                for size in range(1473):
                    data = payload(size, size)
                    s.sendto(data, (host, at.port))
                    got, name = s.recvfrom(2000)
                    self.assertEqual((data, at.addr), (got, text_of(name)))
                self.check("OK", self.driver.reply())
                self.ok("close", "u")

    def test_every_size_to_1472_comes_back_to_netio(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                s = self.bound(family, host)
                self.ours(host)
                self.driver.send("sizes", "u", text_of(s.getsockname()), 0, 1472, 20000)
                for size in range(1473):
                    got, name = s.recvfrom(2000)
                    self.assertEqual(size, len(got))
                    s.sendto(got, name)
                self.check("OK", self.driver.reply())
                self.ok("close", "u")

    def test_largest_datagrams_pass_and_larger_ones_are_emsgsize(self):
        for (family, host), largest in zip(FAMILIES, (65507, 65527)):
            with self.subTest(host):
                at, s = self.ours(host), self.bound(family, host)
                where = text_of(s.getsockname())
                data = payload(largest)
                s.sendto(data, (host, at.port))
                got = self.ok("recvfrom", "u", 65536, 5000)
                self.assertEqual((largest, crc(data)), (got.length, got.crc))
                sent = self.ok("sendto", "u", where, "random:%d:1" % largest, 1000)
                self.assertEqual(largest, sent.n)
                self.assertEqual(largest, len(s.recv(65536)))
                answer = self.do("sendto", "u", where, "zero:%d" % (largest + 1), 1000)
                self.check("EMSGSIZE", answer)
                self.ok("sendto", "u", where, "text:next", 1000)
                self.assertEqual(b"next", s.recv(100))
                self.ok("close", "u")

    def test_burst_keeps_boundaries_and_order(self):
        at, s = self.ours(), self.bound()
        for n in range(100):
            s.sendto(b"%03d" % n + b"x" * n, ("127.0.0.1", at.port))
        for n in range(100):
            got = self.ok("recvfrom", "u", 2000, 5000)
            self.assertEqual(b"%03d" % n + b"x" * n, got.bytes)
        self.check("EAGAIN", self.do("recvfrom", "u", 2000, 0))

    def test_empty_datagram_is_a_message(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                at, s = self.ours(host), self.bound(family, host)
                for data in (b"", b"after"):
                    s.sendto(data, (host, at.port))
                got = self.ok("recvfrom", "u", 100, 5000)
                self.assertEqual((0, text_of(s.getsockname())), (got.length, got.sender))
                self.assertEqual(b"after", self.ok("recvfrom", "u", 100, 5000).bytes)
                self.assertEqual(0, self.ok("sendto", "u", got.sender, "text:", 1000).n)
                self.assertEqual((b"", at.addr), (lambda d, n: (d, text_of(n)))(*s.recvfrom(100)))
                self.ok("close", "u")

    def test_cut_datagram_says_so_and_the_next_is_whole(self):
        at, s = self.ours(), self.bound()
        s.sendto(b"0123456789" * 10, ("127.0.0.1", at.port))
        s.sendto(b"next", ("127.0.0.1", at.port))
        got = self.ok("recvfrom", "u", 10, 5000)
        self.assertEqual(b"0123456789", got.bytes)
        if peers.is_native():
            self.assertEqual(100, got.length)
        self.assertTrue(got.length > 10, got)
        self.assertEqual(b"next", self.ok("recvfrom", "u", 10, 5000).bytes)

    def test_pieces_leave_as_one_datagram(self):
        s = self.bound()
        self.ok("connect", "c", text_of(s.getsockname()), 1000, "type=dgram")
        self.ok("sendv", "c", 1000, "text:one", "text:", "text:two", "random:1000:1")
        self.assertEqual((b"onetwo", 1006), (lambda d: (d[:6], len(d)))(s.recv(2000)))


class Peers(Udp):
    def test_unbound_socket_gets_its_answer(self):
        s = self.bound()
        self.ok("bind", "u", "-")
        self.ok("sendto", "u", text_of(s.getsockname()), "text:ask", 1000)
        got, name = s.recvfrom(100)
        s.sendto(b"answer", name)
        got = self.ok("recvfrom", "u", 100, 5000)
        self.assertEqual((b"answer", text_of(s.getsockname())), (got.bytes, got.sender))

    def test_both_families_reach_one_socket_unmapped(self):
        at = self.ok("bind", "u", ":0")
        for family, host in FAMILIES:
            s = self.bound(family, host)
            s.sendto(b"x", (host, at.port))
            got = self.ok("recvfrom", "u", 10, 5000)
            self.assertEqual(text_of(s.getsockname()), got.sender)
            self.ok("sendto", "u", got.sender, "text:back", 1000)
            self.assertEqual(b"back", s.recv(10))

    def test_connected_socket_hears_its_peer_alone(self):
        s, stranger = self.bound(), self.bound()
        c = self.ok("connect", "c", text_of(s.getsockname()), 1000, "type=dgram")
        port = int(c.local.rsplit(":", 1)[1])
        stranger.sendto(b"foreign", ("127.0.0.1", port))
        s.sendto(b"own", ("127.0.0.1", port))
        self.assertEqual(b"own", self.ok("recv", "c", 100, 5000).bytes)
        self.check("EAGAIN", self.do("recv", "c", 100, 0))

    def test_connected_socket_reports_a_closed_port_once_and_lives_on(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                s = self.bound(family, host)
                name = s.getsockname()
                self.ok("connect", "c", text_of(name), 1000, "type=dgram")
                s.close()
                self.ok("send", "c", "text:x", 1000)
                if not peers.under_wine():  # which keeps it from a receive
                    answer = self.check("ECONNREFUSED", self.do("recv", "c", 10, 5000))
                    self.assertTrue(answer.ms < LATE, answer)
                self.check("ETIMEDOUT", self.do("recv", "c", 10, 50))
                s = self.keep(socket.socket(family, socket.SOCK_DGRAM))
                s.bind(name)
                s.settimeout(5)
                if peers.under_wine():
                    self.do("get", "c", "ERROR")
                self.ok("send", "c", "text:again", 1000)
                self.assertEqual(b"again", s.recv(10))
                self.ok("close", "c")

    def test_unconnected_socket_never_hears_of_a_closed_port(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                at, s = self.ours(host), self.bound(family, host)
                closed = self.bound(family, host)
                nowhere = text_of(closed.getsockname())
                closed.close()
                for _ in range(3):
                    self.ok("sendto", "u", nowhere, "text:x", 1000)
                    self.check("EAGAIN", self.do("recvfrom", "u", 10, 0))
                s.sendto(b"fine", (host, at.port))
                self.assertEqual(b"fine", self.ok("recvfrom", "u", 10, 5000).bytes)
                self.ok("close", "u")

    def test_python_peer_hears_that_our_port_is_closed(self):
        at = self.ours()
        s = self.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        s.settimeout(5)
        s.connect(("127.0.0.1", at.port))
        self.ok("close", "u")
        s.send(b"x")
        with self.assertRaises(ConnectionRefusedError):
            s.recv(1)

    def test_no_data_is_etimedout_at_the_limit(self):
        self.ours()
        answer = self.check("ETIMEDOUT", self.do("recvfrom", "u", 10, 100))
        self.assertTrue(100 <= answer.ms < LATE, answer)

    def test_taken_port_is_eaddrinuse(self):
        s = self.bound()
        self.check("EADDRINUSE", self.do("bind", "u", text_of(s.getsockname())))


class Queries(Udp):
    def asked(self, s, answers):
        """Receive queries until the end of the test; `answers(n)` says what the n-th is answered
        with. Gives the queries so far."""
        got = []

        def run():
            while True:
                query, name = s.recvfrom(100)
                if query == b"the end":
                    return
                got.append(query)
                data = answers(len(got))
                if data is not None:
                    s.sendto(data, name)

        def end():
            s.sendto(b"the end", s.getsockname())
            thread.join()

        s.settimeout(None)
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(end)
        return got

    def test_third_of_three_queries_is_answered(self):
        s, stray = self.bound(), self.bound()
        at = self.ours()

        def answer(n):
            stray.sendto(b"stray", ("127.0.0.1", at.port))
            return b"answer" if n == 3 else None

        got = self.asked(s, answer)
        said = self.ok("query", "u", text_of(s.getsockname()), "text:ask", 4, 500)
        self.assertEqual((b"answer", [b"ask"] * 3), (said.bytes, got))
        self.assertTrue(500 + 1000 <= said.ms < 3500, said)

    def test_silence_is_etimedout_after_exactly_three_queries(self):
        s = self.bound()
        self.ours()
        got = self.asked(s, lambda n: None)
        said = self.check("ETIMEDOUT", self.do("query", "u", text_of(s.getsockname()), "text:a",
                                               3, 30))
        self.assertTrue(30 + 60 + 120 <= said.ms < LATE, said)
        wait_until(lambda: len(got) >= 3)
        self.assertEqual([b"a"] * 3, got)


if __name__ == "__main__":
    peers.main()
