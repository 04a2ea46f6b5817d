#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""What the kernel says about netio's sockets: `ss`, /proc, and Python looking at the very same
socket through pidfd_getfd(2)."""
import ctypes
import os
import re
import shutil
import socket
import struct
import subprocess

import peers
from peers import LATE, wait_until

IPPROTO_TCP, IPPROTO_IP, IPPROTO_IPV6, SOL = (socket.IPPROTO_TCP, socket.IPPROTO_IP,
                                              socket.IPPROTO_IPV6, socket.SOL_SOCKET)
PIDFD_GETFD = 438  # the same number on every architecture


class Witness(peers.Case):
    def setUp(self):
        super().setUp()
        self.pid = self.driver.pid()

    def twin(self, name):
        """Our own descriptor of the driver's socket."""
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError) as e:
            self.skipTest("no pidfd_open: %s" % e)
        fd = libc.syscall(PIDFD_GETFD, pidfd, self.ok("fd", name).fd, 0)
        code = ctypes.get_errno()
        os.close(pidfd)
        if fd < 0:
            self.skipTest("no pidfd_getfd: " + os.strerror(code))
        return self.keep(socket.socket(fileno=fd))

    def ss(self, *words):
        if shutil.which("ss") is None:
            self.skipTest("no ss")
        return subprocess.run(["ss", "-H", "-n", "-O"] + list(words), check=True,
                              stdout=subprocess.PIPE, universal_newlines=True).stdout

    def ours(self, s):
        """The filter that shows the driver's end of a connection; its port alone may be in use for
        another one too."""
        return "( sport = :%d and dport = :%d )" % (s.getpeername()[1], s.getsockname()[1])

    def flags(self, fd):
        with open("/proc/%d/fdinfo/%d" % (self.pid, fd)) as f:
            return int(re.search(r"flags:\s*([0-7]+)", f.read()).group(1), 8)

    def descriptors(self):
        return sorted(int(fd) for fd in os.listdir("/proc/%d/fd" % self.pid))


class Ss(Witness):
    def test_it_shows_the_backlog(self):
        with open("/proc/sys/net/core/somaxconn") as f:
            most = int(f.read())
        for asked, want in ((None, 1024), (1, 1), (128, 128), (1024, 1024), (1 << 30, most)):
            with self.subTest(asked):
                options = () if asked is None else ("backlog=%d" % asked,)
                at = self.ok("listen", "l", "127.0.0.1:0", *options)
                line = self.ss("-l", "-t", "sport = :%d" % at.port).split()
                self.assertEqual(("LISTEN", str(min(want, most))), (line[0], line[2]), line)
                self.ok("close", "l")
        self.check("EINVAL", self.do("listen", "l", "127.0.0.1:0", "backlog=-1"))

    def test_clients_beyond_the_backlog_are_not_lost(self):
        at = self.ok("listen", "l", "127.0.0.1:0", "backlog=1")
        clients = []
        for n in range(50):
            s = self.keep(socket.socket())
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", at.port))
            clients.append(s)
        queued = int(self.ss("-l", "-t", "sport = :%d" % at.port).split()[1])
        self.assertTrue(1 <= queued < 50, queued)
        for n in range(queued):
            self.ok("accept", "s", "l", 5000)
            self.ok("close", "s")
        # The others' SYNs come again by themselves: after 1 s, 2 s, ... One more is proof enough.
        self.ok("accept", "s", "l", 10000)

    def test_port_alone_is_one_dual_socket(self):
        at = self.ok("listen", "l", ":0")
        lines = self.ss("-l", "-t", "-e", "sport = :%d" % at.port).splitlines()
        self.assertEqual(1, len(lines), lines)
        self.assertIn("*:%d" % at.port, lines[0])
        self.assertIn("v6only:0", lines[0])
        self.ok("close", "l")
        at = self.ok("listen", "l", ":0", "v6only=1")
        line = self.ss("-l", "-t", "-e", "sport = :%d" % at.port)
        self.assertIn("[::]:%d" % at.port, line)
        self.assertIn("v6only:1", line)

    def test_it_shows_the_keepalive_timer(self):
        ours = self.ours(self.pair())
        self.assertNotIn("keepalive", self.ss("-t", "-o", ours))
        self.ok("keepalive", "c", 60, 10, 5)
        self.assertRegex(self.ss("-t", "-o", ours),
                         r"timer:\(keepalive,(1min|59sec|59\.\d+sec),0\)")
        self.ok("set", "c", "KEEPALIVE", 0)
        self.assertNotIn("keepalive", self.ss("-t", "-o", ours))

    def test_it_shows_congestion_control_and_buffers(self):
        with open("/proc/sys/net/ipv4/tcp_allowed_congestion_control") as f:
            names = f.read().split()
        ours = self.ours(self.pair())
        for name in names:
            self.ok("set", "c", "CONGESTION", name)
            self.assertRegex(self.ss("-t", "-i", ours), r"\b%s\b" % name)
            self.assertEqual(name, self.ok("get", "c", "CONGESTION").value)
        self.check("ENOENT", self.do("set", "c", "CONGESTION", "no-such-one"))
        self.ok("set", "c", "RCVBUF", 65536)
        self.ok("set", "c", "SNDBUF", 32768)
        self.assertRegex(self.ss("-t", "-m", ours), r"rb131072,.*tb65536")

    def test_it_shows_the_type_of_service(self):
        ours = self.ours(self.pair())
        self.ok("set", "c", "TOS", 0x10)
        self.assertIn("tos:0x10", self.ss("-t", "--tos", "-i", ours))

    def test_it_shows_unix_listeners_by_name(self):
        path = self.folder() + "/s"
        self.ok("listen", "l", "unix:" + path, "backlog=7")
        name = "netio-ss-%d" % os.getpid()
        self.ok("listen", "a", "unix:@" + name)
        lines = [line.split() for line in self.ss("-x", "-l").splitlines()]
        self.assertEqual(["7"], [w[3] for w in lines if path in w])
        self.assertEqual(["u_str"], [w[0] for w in lines if "@" + name in w])

    def test_connection_states_follow_the_calls(self):
        def state():
            line = self.ss("-t", "-a", ours)
            return line.split()[0] if line else ""

        def reaches(want):
            wait_until(lambda: state() == want, 5, want)

        s = self.pair()
        ours = self.ours(s)
        reaches("ESTAB")
        self.ok("shutdown", "c", "write")
        reaches("FIN-WAIT-2")
        s.close()
        reaches("TIME-WAIT")
        self.ok("close", "c")
        s = self.pair()
        ours = self.ours(s)
        s.shutdown(socket.SHUT_WR)
        reaches("CLOSE-WAIT")
        self.ok("abort", "c")
        reaches("")


class Options(Witness):
    """Every option that netio sets, read by Python from the same socket, and the other way."""

    def both_ways(self, s, option, level, name, values, read=lambda v: v):
        for value in values:
            with self.subTest(option, value=value):
                self.ok("set", "c", option, value)
                self.assertEqual(read(value), s.getsockopt(level, name))
                s.setsockopt(level, name, values[0])
                self.assertEqual(read(values[0]) if option not in ("SNDBUF", "RCVBUF")
                                 else s.getsockopt(level, name), self.ok("get", "c", option).value)

    def test_numbers_of_a_tcp_socket(self):
        self.pair()
        s = self.twin("c")
        double = lambda v: 2 * v
        for option, level, name, values, read in (
                ("NODELAY", IPPROTO_TCP, socket.TCP_NODELAY, (0, 1), None),
                ("CORK", IPPROTO_TCP, socket.TCP_CORK, (0, 1), None),
                ("KEEPALIVE", SOL, socket.SO_KEEPALIVE, (0, 1), None),
                ("KEEPIDLE", IPPROTO_TCP, socket.TCP_KEEPIDLE, (7, 60, 32767), None),
                ("KEEPINTVL", IPPROTO_TCP, socket.TCP_KEEPINTVL, (3, 10), None),
                ("KEEPCNT", IPPROTO_TCP, socket.TCP_KEEPCNT, (2, 9), None),
                ("USER_TIMEOUT", IPPROTO_TCP, 18, (0, 1500), None),
                ("SNDBUF", SOL, socket.SO_SNDBUF, (65536, 131072), double),
                ("RCVBUF", SOL, socket.SO_RCVBUF, (65536, 131072), double),
                ("TTL", IPPROTO_IP, socket.IP_TTL, (64, 1, 255), None),
                ("TOS", IPPROTO_IP, socket.IP_TOS, (0, 0x10, 0xb8), None),
                ("NOTSENT_LOWAT", IPPROTO_TCP, 25, (16384, 1), None)):
            self.both_ways(s, option, level, name, values, read or (lambda v: v))

    def test_numbers_of_a_tcp6_socket(self):
        self.pair(socket.AF_INET6, "::1")
        s = self.twin("c")
        self.both_ways(s, "TTL", IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, (64, 1, 255))
        self.both_ways(s, "TOS", IPPROTO_IPV6, socket.IPV6_TCLASS, (0, 0x10))

    def test_numbers_of_a_udp_socket(self):
        self.ok("bind", "c", "127.0.0.1:0")
        s = self.twin("c")
        self.both_ways(s, "BROADCAST", SOL, socket.SO_BROADCAST, (0, 1))
        self.both_ways(s, "MULTICAST_TTL", IPPROTO_IP, socket.IP_MULTICAST_TTL, (1, 0, 255))
        self.both_ways(s, "MULTICAST_LOOP", IPPROTO_IP, socket.IP_MULTICAST_LOOP, (1, 0))
        self.ok("set", "c", "DONTFRAG", 1)
        self.assertIn(s.getsockopt(IPPROTO_IP, 10), (2, 3))  # IP_MTU_DISCOVER: DO or PROBE
        self.ok("set", "c", "DONTFRAG", 0)
        self.assertIn(s.getsockopt(IPPROTO_IP, 10), (0, 1))

    def test_times_and_linger(self):
        self.pair()
        s = self.twin("c")
        for option, name in (("RCVTIMEO", socket.SO_RCVTIMEO), ("SNDTIMEO", socket.SO_SNDTIMEO)):
            self.ok("set", "c", option, 1500)
            self.assertEqual((1, 500000), struct.unpack("ll", s.getsockopt(SOL, name, 16)))
            self.assertEqual(1500, self.ok("get", "c", option).value)
        for value, want in ((0, (1, 0)), (5, (1, 5)), (-1, (0, 0))):
            self.ok("set", "c", "LINGER", value)
            on, seconds = struct.unpack("ii", s.getsockopt(SOL, socket.SO_LINGER, 8))
            self.assertEqual(want, (on, seconds if on else 0))
            self.assertEqual(value, self.ok("get", "c", "LINGER").value)

    def test_settings_act_before_the_connection_exists(self):
        server, where = self.listener()
        self.ok("connect", "c", where, 5000, "set=SNDBUF:100000", "set=NODELAY:1", "set=TTL:9")
        s = self.twin("c")
        self.assertEqual((200000, 1, 9), (s.getsockopt(SOL, socket.SO_SNDBUF),
                                          s.getsockopt(IPPROTO_TCP, socket.TCP_NODELAY),
                                          s.getsockopt(IPPROTO_IP, socket.IP_TTL)))
        self.ok("listen", "l", ":0", "set=RCVBUF:50000")
        self.assertEqual(100000, self.twin("l").getsockopt(SOL, socket.SO_RCVBUF))

    def test_listener_may_restart_at_once_and_shares_nothing(self):
        at = self.ok("listen", "l", "127.0.0.1:0")
        s = self.twin("l")
        self.assertEqual((1, 0), (s.getsockopt(SOL, socket.SO_REUSEADDR),
                                  s.getsockopt(SOL, socket.SO_REUSEPORT)))
        c = self.keep(socket.create_connection(("127.0.0.1", at.port), 5))
        self.ok("accept", "s", "l", 5000)
        self.ok("close", "s")  # ours goes first, so the waiting state stays with this port
        c.close()
        s.close()
        other = self.keep(socket.socket())
        other.setsockopt(SOL, socket.SO_REUSEADDR, 1)
        with self.assertRaises(OSError):
            other.bind(("127.0.0.1", at.port)), other.listen(1)
        self.ok("close", "l")
        self.ok("listen", "l", at.addr)

    def test_errors_and_unread_bytes_are_told(self):
        s = self.pair()
        s.sendall(b"12345")
        wait_until(lambda: self.ok("get", "c", "READABLE").value == 5)
        peers.reset(s)
        wait_until(lambda: self.ok("get", "c", "ERROR").value == "ECONNRESET")
        self.assertEqual("OK", self.ok("get", "c", "ERROR").value)


class Process(Witness):
    def test_every_descriptor_is_close_on_exec_and_sockets_never_block(self):
        before = self.descriptors()
        path = self.folder() + "/s"
        at = self.ok("listen", "l", ":0")
        self.ok("connect", "c", "127.0.0.1:%d" % at.port, 5000)
        self.ok("accept", "s", "l", 5000)
        self.ok("bind", "u", ":0")
        self.ok("bind", "v", "-")
        self.ok("listen", "x", "unix:" + path)
        self.ok("connect", "y", "unix:" + path, 5000)
        self.ok("accept", "z", "x", 5000)
        self.ok("pair", "p", "q")
        self.ok("pair", "r", "t", "dgram")
        self.ok("start", "w", "127.0.0.1:%d" % at.port)
        ours = [fd for fd in self.descriptors() if fd not in before]
        for fd in ours:
            self.assertTrue(self.flags(fd) & os.O_NONBLOCK, fd)
        for backend in ("select", "poll", "epoll"):
            self.ok("poller", backend)
            ours = [fd for fd in self.descriptors() if fd not in before]
            self.assertGreaterEqual(len(ours), 13)
            for fd in ours:
                name = os.readlink("/proc/%d/fd/%d" % (self.pid, fd))
                self.assertTrue(self.flags(fd) & os.O_CLOEXEC, name)

    def test_inheritable_is_only_what_was_asked_for(self):
        for command in (("listen", "a", "127.0.0.1:0"), ("bind", "a", ":0")):
            self.ok(*command, "inheritable=1")
            self.assertFalse(self.flags(self.ok("fd", "a").fd) & os.O_CLOEXEC, command)
            self.ok("close", "a")

    def test_failures_leave_no_descriptor(self):
        server, where = self.listener()
        server.close()
        before = self.descriptors()
        path = self.folder() + "/file"
        open(path, "w").close()
        for command in (("connect", "c", where, 1000), ("connect", "c", "localhost:1", 1000),
                        ("connect", "c", "unix:" + path, 1000), ("listen", "l", "192.0.2.1:0"),
                        ("listen", "l", "unix:" + path), ("bind", "u", "192.0.2.1:0"),
                        ("listen", "l", "127.0.0.1:0", "set=TTL:999"),
                        ("bind", "u", ":0", "set=CONGESTION:reno"),
                        ("connect", "c", where, 1000, "local=192.0.2.1:0"),
                        ("listen", "l", "127.0.0.1:0", "set=DEVICE:no-such-0")):
            self.assertNotEqual("OK", self.do(*command).err, command)
            self.assertEqual(before, self.descriptors(), command)

    def switches(self):
        with open("/proc/%d/status" % self.pid) as f:
            text = f.read()
        return sum(int(n) for n in re.findall(r"ctxt_switches:\s*(\d+)", text))

    def test_idle_waits_sleep_through(self):
        self.pair()
        for backend in ("select", "poll", "epoll"):
            with self.subTest(backend):
                self.ok("poller", backend)
                self.ok("add", "c", "r")
                before = self.switches()
                answer = self.ok("poll", 400)
                self.assertTrue(answer.count == 0 and 400 <= answer.ms < LATE, answer)
                # Going to sleep, waking, the commands themselves; a tick each 10 ms would be 40.
                self.assertLess(self.switches() - before, 15)
        for command in (("recv", "c", 10, 300), ("wait", "c", "r", 300)):
            with self.subTest(command[0]):
                before = self.switches()
                self.check("ETIMEDOUT", self.do(*command))
                self.assertLess(self.switches() - before, 15)

    def test_urgent_byte_wakes_nobody_and_is_skipped(self):
        for backend in ("select", "poll", "epoll"):
            with self.subTest(backend):
                s = self.pair()
                self.ok("poller", backend)
                self.ok("add", "c", "r")
                s.send(b"before"), s.send(b"!", socket.MSG_OOB)
                self.assertEqual("r", self.ok("poll", 5000).c)
                self.assertEqual(b"before", self.ok("recv", "c", 100, 0).bytes)
                before = self.switches()
                self.assertEqual(0, self.ok("poll", 200).count)
                self.assertLess(self.switches() - before, 15)
                s.send(b"after")
                self.assertEqual("r", self.ok("poll", 5000).c)
                self.assertEqual(b"after", self.ok("recv", "c", 100, 0).bytes)
                self.ok("drop", "c")

    def test_reset_without_interest_wakes_nobody(self):
        for backend in ("select", "poll", "epoll"):
            with self.subTest(backend):
                s = self.pair()
                self.ok("poller", backend)
                self.ok("add", "c", "-")
                peers.reset(s)
                self.ok("wait", "c", "r", 5000)  # the reset has come
                before = self.switches()
                answer = self.ok("poll", 300)
                self.assertEqual((0, True), (answer.count, answer.ms >= 300), answer)
                self.assertLess(self.switches() - before, 15)
                self.ok("modify", "c", "r")
                self.assertEqual("r", self.ok("poll", 1000).c)
                self.ok("drop", "c")


if __name__ == "__main__":
    peers.need_native()
    peers.main()
