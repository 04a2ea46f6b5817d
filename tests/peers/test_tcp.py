#!/usr/bin/env python3
"""TCP between netio and Python's socket module, over IPv4 and IPv6, in both roles."""
import os
import socket
import struct
import threading

import peers
from peers import FAMILIES, LATE, MIB, crc, payload, receive, receive_all, text_of, wait_until


class Bytes(peers.Case):
    def test_8_mib_sent_arrive_whole(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                s = self.pair(family, host)
                self.driver.send("sendall", "c", "random:%d:7" % (8 * MIB), 20000)
                got = receive(s, 8 * MIB)
                sent = self.check("OK", self.driver.reply())
                self.assertEqual((8 * MIB, sent.crc), (len(got), crc(got)))
                self.ok("close", "c")

    def test_8_mib_received_are_whole(self):
        data = payload(8 * MIB)
        for family, host in FAMILIES:
            with self.subTest(host):
                s = self.pair(family, host)
                self.driver.send("recvall", "c", 20000)
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                got = self.check("OK", self.driver.reply())
                self.assertEqual((8 * MIB, crc(data)), (got.n, got.crc))
                self.ok("close", "c")

    def test_8_mib_both_ways_at_once(self):
        data = payload(8 * MIB, 2)
        for family, host in FAMILIES:
            with self.subTest(host):
                s = self.pair(family, host)
                self.driver.send("exchange", "c", "random:%d:9" % (8 * MIB), 20000)

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

    def test_8_mib_come_back_from_an_echo_server(self):
        data = payload(8 * MIB, 3)
        for family, host in FAMILIES:
            with self.subTest(host):
                at = self.ok("listen", "l", "[::1]:0" if ":" in host else "127.0.0.1:0")
                s = self.keep(socket.create_connection((host, at.port), 10))
                self.ok("accept", "s", "l", 5000)
                self.driver.send("echo", "s", 20000)

                def send():
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)

                sender = threading.Thread(target=send)
                sender.start()
                got = receive(s, 8 * MIB)
                sender.join()
                self.assertEqual(8 * MIB, self.check("OK", self.driver.reply()).n)
                self.assertEqual((8 * MIB, crc(data)), (len(got), crc(got)))
                self.ok("close", "s")
                self.assertEqual(b"", s.recv(1))
                self.ok("close", "l")

    def test_8_mib_through_4_kib_buffers(self):
        s = self.pair(SO_RCVBUF=4096)
        self.ok("set", "c", "SNDBUF", 4096)
        self.driver.send("sendall", "c", "random:%d:5" % (8 * MIB), 30000)
        got = receive(s, 8 * MIB)
        sent = self.check("OK", self.driver.reply())
        self.assertEqual((8 * MIB, 8 * MIB, sent.crc), (sent.done, len(got), crc(got)))

    def test_pieces_arrive_joined_and_are_taken_apart(self):
        s = self.pair()
        sent = self.ok("sendvall", "c", 5000, "text:one", "text:", "random:100000:1", "text:four")
        got = receive(s, 100007)
        self.assertEqual((100007, b"one", b"four"), (sent.done, got[:3], got[-4:]))
        s.sendall(b"abcdefghij")
        self.ok("wait", "c", "r", 5000)
        wait_until(lambda: self.ok("get", "c", "READABLE").value == 10)
        got = self.ok("recvv", "c", 5000, 3, 0, 2, 100)
        self.assertEqual(["616263", "6465", "666768696a"], got.all("hex"))

    def test_peek_leaves_the_bytes(self):
        s = self.pair()
        s.sendall(b"12345678")
        wait_until(lambda: self.ok("get", "c", "READABLE").value == 8)
        self.assertEqual(b"1234", self.ok("peek", "c", 4, 5000).bytes)
        self.assertEqual(b"12345678", self.ok("recv", "c", 8, 5000).bytes)

    def test_sendfile_sends_the_part_that_was_asked_for(self):
        data = payload(3 * MIB, 4)
        path = self.folder() + "/file"
        with open(path, "wb") as f:
            f.write(data)
        s = self.pair()
        self.driver.send("sendfile", "c", path, 1000, 2 * MIB, 20000)
        got = receive(s, 2 * MIB)
        self.assertEqual(2 * MIB, self.check("OK", self.driver.reply()).done)
        self.assertEqual(crc(data[1000:1000 + 2 * MIB]), crc(got))
        self.driver.send("sendfile", "c", path, 3 * MIB - 10, 50, 20000)
        self.assertEqual(data[-10:], receive(s, 10))
        self.assertEqual(10, self.check("ETRUNCATED", self.driver.reply()).done)

    def test_100_mib_of_a_file_arrive_whole(self):
        data = payload(MIB, 8)
        path = self.folder() + "/file"
        with open(path, "wb") as f:
            for _ in range(100):
                f.write(data)
        s = self.pair()
        self.driver.send("sendfile", "c", path, 0, 100 * MIB, 30000)
        for n in range(100):
            self.assertEqual(data, receive(s, MIB), n)
        self.assertEqual(100 * MIB, self.check("OK", self.driver.reply()).done)

    def test_file_is_read_beyond_4_gib(self):
        data = payload(MIB, 9)
        path = self.folder() + "/file"
        with open(path, "wb") as f:
            try:
                f.seek(5 << 30)  # what lies before takes no room
                f.write(data)
            except OSError as e:
                self.skipTest("no such large file here: %s" % e)
        s = self.pair()
        self.driver.send("sendfile", "c", path, 5 << 30, MIB, 20000)
        self.assertEqual(crc(data), crc(receive(s, MIB)))
        self.assertEqual(MIB, self.check("OK", self.driver.reply()).done)


class Ends(peers.Case):
    def test_peer_hears_our_half_close_and_answers_1_mib(self):
        data = payload(MIB, 6)
        for family, host in FAMILIES:
            with self.subTest(host):
                s = self.pair(family, host)
                self.ok("sendall", "c", "text:question", 5000)
                self.ok("shutdown", "c", "write")
                self.assertEqual(b"question", receive_all(s))
                self.driver.send("recvall", "c", 10000)
                s.sendall(data)
                s.close()
                self.assertEqual(crc(data), self.check("OK", self.driver.reply()).crc)
                self.check("EPIPE", self.do("send", "c", "text:late", 1000))
                self.ok("close", "c")

    def test_we_hear_the_peers_half_close_and_answer_1_mib(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                s = self.pair(family, host)
                s.sendall(b"question")
                s.shutdown(socket.SHUT_WR)
                self.assertEqual(8, self.ok("recvall", "c", 5000).n)
                self.check("EOF", self.do("recv", "c", 10, 1000))
                self.driver.send("sendall", "c", "random:%d:3" % MIB, 10000)
                got = receive(s, MIB)
                self.assertEqual(crc(got), self.check("OK", self.driver.reply()).crc)
                self.ok("close", "c")
                self.assertEqual(b"", s.recv(1))

    def test_peers_reset_is_econnreset(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                s = self.pair(family, host)
                peers.reset(s)
                answer = self.do("recv", "c", 10, 5000)
                if not (peers.under_wine() and answer.err == "EOF"):  # wine takes it for an end
                    self.check("ECONNRESET", answer)
                self.ok("close", "c")

    def test_bytes_before_a_reset_are_delivered(self):
        s = self.pair()
        s.sendall(b"0123456789")
        wait_until(lambda: self.ok("get", "c", "READABLE").value == 10)
        peers.reset(s)
        if peers.is_native():  # a system may throw them away; Linux does not
            wait_until(lambda: self.ok("get", "c", "ERROR").value != "OK")
            self.assertEqual(b"0123456789", self.ok("recv", "c", 100, 5000).bytes)
        self.assertNotEqual("OK", self.do("send", "c", "text:x", 1000).err)

    def test_sending_after_a_reset_fails_for_good(self):
        s = self.pair()
        peers.reset(s)
        self.ok("wait", "c", "r", 5000)
        first = self.do("send", "c", "text:x", 1000)
        self.assertIn(first.err, ("ECONNRESET", "EPIPE"))
        for _ in range(3):
            self.assertIn(self.do("send", "c", "text:x", 1000).err, ("ECONNRESET", "EPIPE"))

    def test_abort_resets_the_peer(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                s = self.pair(family, host)
                self.ok("abort", "c")
                with self.assertRaises(ConnectionResetError):
                    s.recv(1)

    def test_accepted_client_that_resets_is_no_harm(self):
        at = self.ok("listen", "l", "127.0.0.1:0")
        for n in range(5):
            peers.reset(socket.create_connection(("127.0.0.1", at.port), 5))
        good = self.keep(socket.create_connection(("127.0.0.1", at.port), 5))
        good.sendall(b"still here")
        for n in range(6):
            if self.ok("accept", "s", "l", 5000).peer == text_of(good.getsockname()):
                break
            self.assertIn(self.do("recv", "s", 10, 5000).err, ("ECONNRESET", "EOF"))
            self.ok("close", "s")
        self.assertEqual(b"still here", self.ok("recv", "s", 100, 5000).bytes)

    def test_last_bytes_come_before_the_end_on_every_poller(self):
        for backend in ("select", "poll", "epoll") if peers.is_native() else ("select", "wsapoll"):
            with self.subTest(backend):
                s = self.pair()
                self.ok("poller", backend)
                self.ok("add", "c", "r")
                self.assertEqual(0, self.ok("poll", 0).count)
                s.sendall(b"0123456789")
                s.close()
                self.assertEqual("r", self.ok("poll", 5000).c)
                self.assertEqual(b"0123456789", self.ok("recv", "c", 100, 0).bytes)
                self.assertEqual("r", self.ok("poll", 5000).c)
                self.check("EOF", self.do("recv", "c", 100, 0))
                self.ok("drop", "c")

    def test_graceful_close_loses_nothing_while_the_peer_sends(self):
        s = self.pair()
        s.sendall(payload(65536))
        self.ok("wait", "c", "r", 5000)
        self.ok("sendall", "c", "random:200000:8", 5000)
        self.driver.send("graceful", "c", 1 << 20, 5000)
        got = receive(s, 200000)
        self.assertEqual(b"", s.recv(1))
        s.close()
        self.check("OK", self.driver.reply())
        self.assertEqual(200000, len(got))

    def test_graceful_close_gives_a_deaf_peer_up_on_time(self):
        s = self.pair()
        answer = self.check("ETIMEDOUT", self.do("graceful", "c", 1 << 20, 200))
        self.assertTrue(200 <= answer.ms < LATE, answer)
        self.assertEqual(b"", s.recv(1))

    def test_graceful_close_stops_at_its_byte_limit(self):
        s = self.pair()
        s.sendall(payload(100000))
        self.check("EMSGSIZE", self.do("graceful", "c", 1000, 5000))

    def test_end_in_the_middle_is_etruncated(self):
        s = self.pair()
        s.sendall(b"12345")
        s.close()
        self.assertEqual(5, self.check("ETRUNCATED", self.do("exact", "c", 8, 5000)).n)
        self.assertEqual(0, self.check("EOF", self.do("exact", "c", 8, 5000)).n)


class Limits(peers.Case):
    def test_quiet_peer_is_etimedout_and_the_connection_stays_good(self):
        s = self.pair()
        answer = self.check("ETIMEDOUT", self.do("recv", "c", 10, 100))
        self.assertTrue(100 <= answer.ms < LATE, answer)
        self.check("EAGAIN", self.do("recv", "c", 10, 0))
        s.sendall(b"now")
        self.assertEqual(b"now", self.ok("recv", "c", 10, 5000).bytes)

    def test_deaf_peer_is_etimedout_with_the_bytes_so_far(self):
        s = self.pair(SO_RCVBUF=8192)
        answer = self.check("ETIMEDOUT", self.do("sendall", "c", "random:%d:2" % (16 * MIB), 200))
        self.assertTrue(200 <= answer.ms < LATE, answer)
        self.assertTrue(0 < answer.done < 16 * MIB)
        self.ok("shutdown", "c", "write")
        got = receive_all(s)
        self.assertEqual((answer.done, answer.crc), (len(got), crc(got)))

    def test_trickle_does_not_move_the_deadline_of_an_exact_receive(self):
        s = self.pair()
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.05):
                s.sendall(b"x")

        sender = threading.Thread(target=trickle)
        sender.start()
        answer = self.do("exact", "c", 100, 300)
        stop.set()
        sender.join()
        self.check("ETIMEDOUT", answer)
        self.assertTrue(300 <= answer.ms < LATE, answer)
        self.assertTrue(1 <= answer.n < 50, answer)

    def test_full_backlog_is_etimedout_at_the_limit(self):
        server, where = self.listener(backlog=0)
        waiting = [self.keep(socket.socket()) for _ in range(3)]
        for s in waiting:
            s.setblocking(False)
            s.connect_ex(server.getsockname())
        answer = self.check("ETIMEDOUT", self.do("connect", "c", where, 200))
        self.assertTrue(200 <= answer.ms < LATE, answer)

    def test_closed_port_is_econnrefused_at_once(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                server, where = self.listener(family, host)
                server.close()
                answer = self.check("ECONNREFUSED", self.do("connect", "c", where, 5000))
                self.assertEqual((1, "ECONNREFUSED"), (answer.attempts, answer.verdict))
                self.assertTrue(answer.ms < LATE, answer)  # Windows tries again for 2 s


class Addresses(peers.Case):
    def test_both_sides_agree_on_both_addresses(self):
        for family, host in FAMILIES:
            with self.subTest(host):
                server, where = self.listener(family, host)
                c = self.ok("connect", "c", where, 5000)
                s, name = server.accept()
                self.keep(s)
                self.assertEqual((text_of(name), where), (c.local, c.peer))
                at = self.ok("listen", "l", where.rsplit(":", 1)[0] + ":0")
                s = self.keep(socket.create_connection((host, at.port), 5))
                self.assertEqual(text_of(s.getsockname()), self.ok("accept", "s", "l", 5000).peer)
                self.assertEqual(text_of(s.getpeername()), self.ok("local", "s").addr)
                for name in ("c", "s", "l"):
                    self.ok("close", name)

    def test_port_alone_serves_both_families_unmapped(self):
        at = self.ok("listen", "l", ":0")
        for family, host in FAMILIES:
            s = self.keep(socket.create_connection((host, at.port), 5))
            self.assertEqual(text_of(s.getsockname()), self.ok("accept", "s", "l", 5000).peer)
            self.assertEqual(text_of(s.getpeername()), self.ok("local", "s").addr)
            self.ok("close", "s")

    def test_v6_only_listener_refuses_v4(self):
        at = self.ok("listen", "l", "[::]:0", "v6only=1")
        self.keep(socket.create_connection(("::1", at.port), 5))
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", at.port), 5)

    def test_chosen_source_address_is_what_the_peer_sees(self):
        server, where = self.listener()
        self.ok("connect", "c", where, 5000, "local=127.0.0.2:0")
        s, name = server.accept()
        self.keep(s)
        self.assertEqual("127.0.0.2", name[0])
        port = peers.free_port()
        self.ok("connect", "d", where, 5000, "local=127.0.0.3:%d" % port)
        s, name = server.accept()
        self.keep(s)
        self.assertEqual(("127.0.0.3", port), name)

    def test_fallback_reaches_the_peer_behind_a_dead_address(self):
        dead, nowhere = self.listener()
        dead.close()
        server, where = self.listener()
        c = self.ok("connect", "c", nowhere, 5000, "fallback=" + where)
        self.assertEqual(where, c.peer)


class Servers(peers.Case):
    def test_200_clients_on_one_poller_each_get_their_own_bytes(self):
        at = self.ok("listen", "l", ":0")
        self.driver.send("serve", "auto", "l", 200, 30000)
        clients = []
        for n in range(200):
            family, host = FAMILIES[n % 2]
            clients.append(self.keep(socket.create_connection((host, at.port), 5)))
        for n, s in enumerate(clients):
            s.sendall(struct.pack("!I", n) * 500)
        for n, s in enumerate(clients):
            self.assertEqual(struct.pack("!I", n) * 500, receive(s, 2000))
        for n, s in enumerate(clients):
            if n % 10 == 0:
                peers.reset(s)
            else:
                s.close()
        said = self.check("OK", self.driver.reply())
        self.assertEqual((200, 200, 400000), (said.came, said.gone, said.total))

    def test_adopted_blocking_socket_keeps_its_limit_and_gets_its_mode_back(self):
        if not peers.is_native():
            self.skipTest("descriptors do not travel into this driver")
        mine, theirs = socket.socketpair()
        self.keep(mine), self.keep(theirs)
        driver = self.start(pass_fds=[theirs.fileno()])
        found = driver.ok("adopt", "a", theirs.fileno()).found
        answer = self.check("ETIMEDOUT", driver.do("recv", "a", 10, 100))
        self.assertTrue(100 <= answer.ms < LATE, answer)
        mine.sendall(b"hello")
        self.assertEqual(b"hello", driver.ok("recv", "a", 10, 1000).bytes)
        self.assertFalse(os.get_blocking(theirs.fileno()))  # the mode is the shared description's
        driver.ok("release", "a", found)
        self.assertTrue(os.get_blocking(theirs.fileno()))


if __name__ == "__main__":
    peers.main()
