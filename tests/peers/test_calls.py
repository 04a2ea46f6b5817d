#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""The system calls behind netio's calls, as strace sees them: how many, with which flags, and what
netio makes of it when one fails, is interrupted, or is not there."""
import os
import re
import socket
import subprocess
import sys

import peers
from peers import LATE, MIB, crc, payload, receive

WAITS = ("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2")
# What the C library does beside: memory, threads, the clock where it is no page of the kernel's.
BESIDE = ("brk", "mmap", "mremap", "munmap", "mprotect", "madvise", "clock_gettime", "getrandom",
          "restart_syscall")


class Trace:
    """A log of strace, cut at the driver's answers: `phase[n]` has the calls of the n-th command as
    pairs of name and whole line."""

    def __init__(self, path):
        with open(path, errors="replace") as f:
            self.text = f.read()
        self.phase, calls, begun = [], [], {}
        for line in self.text.splitlines():
            thread, _, line = line.partition(" ")
            line = line.strip()
            if line.endswith("<unfinished ...>"):  # another thread comes between
                begun[thread] = line[:-len("<unfinished ...>")]
                continue
            if line.startswith("<... "):
                line = begun.pop(thread) + line.partition("resumed>")[2]
            name = line.partition("(")[0]
            if line.startswith("write(1,"):
                self.phase.append(calls)
                calls = []
            elif name.isidentifier() and name not in BESIDE and not line.startswith("read(0,"):
                calls.append((name, line))

    def names(self, n):
        return [name for name, _ in self.phase[n]]

    def lines(self, name):
        return [line for phase in self.phase for n, line in phase if n == name]


class Calls(peers.Case):
    """`self.do` and `self.ok` run a driver below strace; their answers know the `index` of their
    phase, which `self.trace()` shows after it has ended that driver."""

    def setUp(self):
        self.log = self.folder() + "/log"
        self.driver = None

    def follow(self, *inject):
        words = ["strace", "-f", "-qq", "-s", "16", "-o", self.log]
        for rule in inject:
            words += ["-e", "inject=" + rule]
        if self.driver:
            self.driver.end()
        self.driver = self.start(words)
        self.count = 0
        self.ok("parse", "192.0.2.1:1")  # takes the start of the program for itself

    def do(self, *words):
        if self.driver is None:
            self.follow()
        answer = self.driver.do(*words)
        answer.index = self.count
        self.count += 1
        return answer

    def ok(self, *words):
        answer = self.check("OK", self.do(*words))
        return answer

    def trace(self):
        self.driver.end()
        self.driver = None
        trace = Trace(self.log)
        self.assertNotIn("--- SIGPIPE", trace.text)
        return trace

    def served(self):
        """A connection that the driver accepted: Python's end; the driver's is called s."""
        at = self.ok("listen", "l", "127.0.0.1:0")
        s = self.keep(socket.create_connection(("127.0.0.1", at.port), 5))
        self.ok("accept", "s", "l", 5000)
        return s


class Counts(Calls):
    def test_accept_is_one_call_a_client(self):
        at = self.ok("listen", "l", ":0")
        for n in range(10):
            self.keep(socket.create_connection(("127.0.0.1", at.port), 5))
        answers = [self.ok("accept", "s%d" % n, "l", 5000 * (n % 2)) for n in range(10)]
        none = self.check("EAGAIN", self.do("accept", "x", "l", 0))
        late = self.check("ETIMEDOUT", self.do("accept", "x", "l", 50))
        trace = self.trace()
        for answer in answers:
            # The driver asks for no local address: what is not asked for is not called for.
            self.assertEqual(["accept4"], trace.names(answer.index))
            self.assertRegex(trace.phase[answer.index][0][1], r"SOCK_CLOEXEC\|SOCK_NONBLOCK|"
                                                              r"SOCK_NONBLOCK\|SOCK_CLOEXEC")
        self.assertEqual(["accept4"], trace.names(none.index))
        self.assertLessEqual(len(trace.names(late.index)), 3)
        self.assertEqual([], trace.lines("fcntl"))

    def test_receiving_what_is_there_is_one_call(self):
        s = self.served()
        s.sendall(b"0123456789")
        self.ok("wait", "s", "r", 5000)
        answers = [self.ok("peek", "s", 2, 5000), self.ok("recv", "s", 2, 5000),
                   self.ok("recv", "s", 2, 0), self.ok("exact", "s", 2, 5000),
                   self.ok("recvv", "s", 5000, 1, 1, 1)]
        empty = self.ok("recv", "s", 0, 5000)
        self.ok("recv", "s", 100, 5000)
        s.close()
        self.ok("wait", "s", "r", 5000)
        end = self.check("EOF", self.do("recv", "s", 2, 5000))
        trace = self.trace()
        for answer in answers:
            self.assertEqual(1, len(trace.names(answer.index)), trace.phase[answer.index])
            self.assertRegex(trace.names(answer.index)[0], r"^(recvfrom|recvmsg|readv|read)$")
        self.assertEqual([], trace.names(empty.index))
        # Whether nothing is the end or an empty datagram depends on the type of the socket.
        self.assertIn(trace.names(end.index)[1:], ([], ["getsockopt"]))

    def test_sending_what_fits_is_one_call_without_a_signal(self):
        self.served()
        answers = [self.ok("send", "s", "text:x", 5000), self.ok("send", "s", "text:x", 0),
                   self.ok("sendall", "s", "random:1000:1", 5000),
                   self.ok("sendv", "s", 5000, "text:one", "text:two", "text:three"),
                   self.ok("sendvall", "s", 5000, "text:one", "text:two", "text:three")]
        trace = self.trace()
        for answer in answers:
            self.assertEqual(1, len(trace.names(answer.index)), trace.phase[answer.index])
            self.assertRegex(trace.names(answer.index)[0], r"^(sendto|sendmsg)$")
            self.assertIn("MSG_NOSIGNAL", trace.phase[answer.index][0][1])
        for answer in answers[-2:]:
            self.assertRegex(trace.phase[answer.index][0][1], r"^.*sendmsg\(.*msg_iovlen=3.* = 11$")

    def test_a_thousand_bytes_in_30_pieces_are_one_call(self):
        s = self.served()
        sent = self.ok("sendvall", "s", 5000, *["random:33:%d" % n for n in range(30)])
        self.assertEqual(990, len(receive(s, 990)))
        self.assertEqual(["sendmsg"], self.trace().names(sent.index))

    def test_a_datagram_is_one_call(self):
        s = self.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        s.bind(("127.0.0.1", 0))
        at = self.ok("bind", "u", ":0")
        s.sendto(b"x", ("127.0.0.1", at.port))
        answers = [self.ok("recvfrom", "u", 100, 5000),
                   self.ok("sendto", "u", peers.text_of(s.getsockname()), "text:x", 5000)]
        trace = self.trace()
        self.assertRegex(" ".join(trace.names(answers[0].index)), r"^(recvfrom|recvmsg)$")
        self.assertRegex(" ".join(trace.names(answers[1].index)), r"^(sendto|sendmsg)$")

    def test_connect_and_listen_make_their_sockets_right_at_birth(self):
        server, where = self.listener()
        connected = self.ok("connect", "c", where, 5000)
        listening = self.ok("listen", "l", "127.0.0.1:0")
        closed = self.ok("close", "c")
        trace = self.trace()
        names = trace.names(connected.index)
        self.assertEqual((1, 1), (names.count("socket"), names.count("connect")), names)
        self.assertLess(names.index("socket"), names.index("connect"))
        # The driver itself asks for the two addresses.
        extra = [n for n in names if n not in ("socket", "connect", "getsockname", "getpeername",
                                               "getsockopt") + WAITS]
        self.assertEqual([], extra)
        names = trace.names(listening.index)
        extra = [n for n in names if n not in ("socket", "setsockopt", "bind", "listen",
                                               "getsockname")]
        self.assertEqual([], extra)
        self.assertEqual(["close"], trace.names(closed.index))
        for line in trace.lines("socket"):
            self.assertIn("SOCK_CLOEXEC", line)
            self.assertIn("SOCK_NONBLOCK", line)

    def test_every_descriptor_is_born_close_on_exec(self):
        self.served()
        path = self.folder() + "/s"
        for command in (("bind", "u", ":0"), ("pair", "a", "b"), ("pair", "e", "f", "dgram"),
                        ("listen", "x", "unix:" + path), ("connect", "y", "unix:" + path, 1000),
                        ("poller", "epoll"), ("poller", "poll"), ("poller", "select"),
                        ("supported", "NODELAY"), ("resolve", "localhost:1", 5000),
                        ("listen", "x2", "unix:" + path + "2"), ("close", "x2"),
                        ("listen", "x2", "unix:" + path + "2")):  # asks whether anybody answers
            self.ok(*command)
        trace = self.trace()
        lines = []
        for name in ("socket", "socketpair", "accept4", "accept", "epoll_create1", "epoll_create",
                     "eventfd2", "eventfd", "pipe2", "pipe", "timerfd_create", "dup", "dup2"):
            lines += trace.lines(name)
        self.assertGreater(len(lines), 8)
        for line in lines:
            self.assertRegex(line, "CLOEXEC")

    def test_a_limit_is_kept_with_one_wait(self):
        self.served()
        answers = [self.do("recv", "s", 10, 100), self.do("wait", "s", "r", 100)]
        trace = self.trace()
        for answer in answers:
            self.check("ETIMEDOUT", answer)
            waits = [n for n in trace.names(answer.index) if n in WAITS]
            self.assertEqual(1, len(waits), trace.phase[answer.index])
            self.assertLessEqual(len(trace.names(answer.index)), 3)


class Pollers(Calls):
    def asks_about(self, line):
        return re.match(r"(fstat|newfstatat|fcntl)\(", line)

    def test_epoll_is_told_changes_only(self):
        s = self.served()
        self.ok("poller", "epoll")
        steps = [(self.ok("add", "s", "r"), ["EPOLL_CTL_ADD"]),
                 (self.ok("modify", "s", "r"), []),
                 (self.ok("modify", "s", "rw"), ["EPOLL_CTL_MOD"]),
                 (self.ok("modify", "s", "rw"), []),
                 (self.ok("modify", "s", "-"), ["EPOLL_CTL_DEL"]),
                 (self.ok("modify", "s", "-"), []),
                 (self.ok("modify", "s", "r"), ["EPOLL_CTL_ADD"]),
                 (self.ok("remove", "s"), ["EPOLL_CTL_DEL"]),
                 (self.ok("add", "s", "-"), []),
                 (self.ok("remove", "s"), [])]
        trace = self.trace()
        for answer, want in steps:
            lines = [line for _, line in trace.phase[answer.index]]
            self.assertEqual(want, re.findall("EPOLL_CTL_[A-Z]+", " ".join(lines)))
            if not want:  # without interest the kernel is not told, so somebody must ask whether
                lines = [line for line in lines if not self.asks_about(line)]  # it is a descriptor
            self.assertEqual(len(want), len(lines), lines)
        s.close()

    def test_select_and_poll_change_without_calls_and_wait_with_one(self):
        for backend in ("select", "poll", "epoll"):
            with self.subTest(backend):
                s = self.served()
                self.ok("poller", backend)
                changes = [self.ok("add", "s", "r"), self.ok("modify", "s", "rw"),
                           self.ok("modify", "s", "r")]
                waits = [self.ok("poll", 0), self.ok("poll", 300)]
                woken = self.ok("wake"), self.ok("poll", 5000)
                s.sendall(b"x")
                waits.append(self.ok("poll", 5000))
                self.assertEqual("r", waits[-1].s)
                removed = self.ok("remove", "s")
                trace = self.trace()
                if backend != "epoll":
                    lines = [line for _, line in trace.phase[changes[0].index]]
                    self.assertLessEqual(len(lines), 1)  # whether it is a descriptor at all
                    self.assertTrue(all(self.asks_about(line) for line in lines), lines)
                    for answer in changes[1:] + [removed]:
                        self.assertEqual([], trace.names(answer.index))
                for answer in waits:
                    lines = [line for _, line in trace.phase[answer.index]]
                    if backend != "epoll":  # that the number is still the socket that was added
                        asked = [line for line in lines[1:] if self.asks_about(line)]
                        self.assertLessEqual(len(asked), answer.count, lines)
                        lines = lines[:1] + [line for line in lines[1:] if line not in asked]
                    self.assertEqual(1, len(lines), lines)
                    self.assertIn(trace.names(answer.index)[0], WAITS)
                self.assertEqual(["write"], trace.names(woken[0].index))
                self.assertEqual((0, True), (woken[1].count, woken[1].ms < 4000))

    def test_echo_server_makes_no_call_too_many(self):
        at = self.ok("listen", "l", ":0")
        self.driver.send("serve", "epoll", "l", 10, 20000)
        clients = [self.keep(socket.create_connection(("127.0.0.1", at.port), 5))
                   for _ in range(10)]
        for s in clients:
            for n in range(5):
                s.sendall(b"message")
                self.assertEqual(b"message", s.recv(100))
        for s in clients:
            s.close()
        said = self.check("OK", self.driver.reply())
        self.assertEqual((10, 10, 350), (said.came, said.gone, said.total))
        trace = self.trace()
        names = trace.names(2)
        self.assertEqual((10, 0), (names.count("accept4"), names.count("fcntl")))
        self.assertEqual((50, 60), (names.count("sendto") + names.count("sendmsg"),
                                    names.count("recvfrom") + names.count("recvmsg")))
        lines = [line for name, line in trace.phase[2] if name == "epoll_ctl"]
        # The poller's own descriptor for waking, the listener, the clients.
        self.assertEqual(12, len([line for line in lines if "EPOLL_CTL_ADD" in line]))
        self.assertEqual(0, len([line for line in lines if "EPOLL_CTL_MOD" in line]))
        waits = [n for n in names if n in WAITS]
        self.assertEqual(said.waits, len(waits))
        self.assertEqual(10, names.count("close") - 1 - names.count("eventfd2")
                         - 2 * names.count("pipe2"))


class Files(Calls):
    def test_file_goes_through_the_kernel_without_sigpipe(self):
        data = payload(16 * MIB)
        path = self.folder() + "/file"
        with open(path, "wb") as f:
            f.write(data)
        s = self.served()
        self.driver.send("sendfile", "s", path, 0, 16 * MIB, 20000)
        got = receive(s, 16 * MIB)
        self.check("OK", self.driver.reply())
        self.assertEqual(crc(data), crc(got))
        peers.reset(s)
        self.count += 1
        self.ok("wait", "s", "r", 5000)
        answers = [self.do("sendfile", "s", path, 0, 16 * MIB, 5000) for _ in range(3)]
        for answer in answers:
            self.assertIn(answer.err, ("ECONNRESET", "EPIPE"))
        trace = self.trace()  # has looked for the signal
        self.assertGreaterEqual(trace.names(3).count("sendfile"), 1)
        self.assertEqual([], [n for n in trace.names(3) if n in ("read", "pread64", "sendto")])

    def test_writing_to_a_reset_peer_raises_no_sigpipe(self):
        s = self.served()
        peers.reset(s)
        self.ok("wait", "s", "r", 5000)
        for command in (("send", "s", "text:x", 1000), ("sendall", "s", "text:x", 1000),
                        ("sendv", "s", 1000, "text:x", "text:y"), ("send", "s", "text:x", 1000)):
            self.assertIn(self.do(*command).err, ("ECONNRESET", "EPIPE"))
        self.trace()

    def test_file_is_copied_where_the_kernel_refuses(self):
        data = payload(300000)
        path = self.folder() + "/file"
        with open(path, "wb") as f:
            f.write(data)
        for code in ("EINVAL", "ENOSYS"):
            with self.subTest(code):
                self.follow("sendfile:error=" + code)
                s = self.served()
                self.driver.send("sendfile", "s", path, 7, 290000, 5000)
                got = receive(s, 290000)
                self.assertEqual(290000, self.check("OK", self.driver.reply()).done)
                self.assertEqual(crc(data[7:290007]), crc(got))
                self.count += 1


class Faults(Calls):
    """One call fails, once, in a way that the network or the machine brings about."""

    def waiting(self, rule):
        self.follow(rule)
        at = self.ok("listen", "l", "127.0.0.1:0")
        return self.keep(socket.create_connection(("127.0.0.1", at.port), 5))

    def test_accept_steps_over_what_concerns_one_client(self):
        for code in ("ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET",
                     "EHOSTUNREACH", "ENETUNREACH", "EPERM", "EINTR"):
            with self.subTest(code):
                self.waiting("accept4:error=%s:when=1" % code)
                got = self.ok("accept", "s", "l", 5000)
                self.assertEqual(2, self.trace().names(got.index).count("accept4"))

    def test_accept_names_what_concerns_the_machine_and_keeps_the_client(self):
        for code, want in (("EMFILE", "EMFILE"), ("ENFILE", "EMFILE"), ("ENOMEM", "ENOMEM"),
                           ("ENOBUFS", "ENOBUFS")):
            with self.subTest(code):
                self.waiting("accept4:error=%s:when=1" % code)
                answer = self.check(want, self.do("accept", "s", "l", 5000))
                self.ok("accept", "s", "l", 5000)
                self.assertEqual(["accept4"], self.trace().names(answer.index))

    def test_accept_falls_back_where_accept4_is_not(self):
        s = self.waiting("accept4:error=ENOSYS")
        self.ok("accept", "s", "l", 5000)
        fd = self.ok("fd", "s").fd
        with open("/proc/%d/fdinfo/%d" % (self.driver.pid(), fd)) as f:
            flags = int(re.search(r"flags:\s*([0-7]+)", f.read()).group(1), 8)
        self.assertTrue(flags & os.O_CLOEXEC and flags & os.O_NONBLOCK, oct(flags))
        s.sendall(b"x")
        self.assertEqual(b"x", self.ok("recv", "s", 1, 5000).bytes)

    def test_interruptions_show_nowhere(self):
        for names, command in ((("recvfrom", "recvmsg"), ("recv", "s", 10, 5000)),
                               (("sendto", "sendmsg"), ("send", "s", "text:x", 5000)),
                               (("sendto", "sendmsg"), ("sendv", "s", 5000, "text:x", "text:y")),
                               (("poll", "ppoll"), ("wait", "s", "r", 5000)),
                               (("sendfile",), ("sendfile", "s", __file__, 0, 10, 5000))):
            with self.subTest(command):
                s = self.waiting(",".join(names) + ":error=EINTR:when=1")
                self.ok("accept", "s", "l", 5000)
                s.sendall(b"hello")
                answer = self.ok(*command)
                self.assertGreaterEqual(len(self.trace().names(answer.index)), 2)

    def test_interrupted_waits_keep_their_deadline(self):
        # Every wait is interrupted at once, so only the clock can end this.
        for backend, names in (("select", "select,pselect6"), ("poll", "poll,ppoll"),
                               ("epoll", "epoll_wait,epoll_pwait,epoll_pwait2")):
            with self.subTest(backend):
                self.follow(names + ":error=EINTR")
                self.ok("poller", backend)
                answer = self.ok("poll", 50)
                self.assertTrue(answer.count == 0 and 50 <= answer.ms < LATE, answer)

    def test_interrupted_close_is_not_repeated(self):
        def closes(*rules):
            self.follow(*rules)
            self.ok("bind", "u", ":0")
            answer = self.ok("close", "u")
            return answer, self.trace()

        answer, trace = closes()
        before = len(re.findall(r"(?m)^\d+ +close\(", trace.text))
        answer, trace = closes("close:error=EINTR:when=%d" % before)
        self.assertEqual(["close"], trace.names(answer.index))
        self.assertIn("INJECTED", trace.phase[answer.index][0][1])

    def test_poller_falls_back_where_epoll_is_not(self):
        self.follow("epoll_create1:error=ENOSYS")
        self.assertIn(self.ok("poller", "auto").backend, ("poll", "select"))
        self.check("ENOTSUP", self.do("poller", "epoll"))

    def test_poller_wakes_where_eventfd_is_not(self):
        self.follow("eventfd2:error=ENOSYS")
        for backend in ("select", "poll", "epoll"):
            with self.subTest(backend):
                self.ok("poller", backend)
                self.ok("wake")
                answer = self.ok("poll", 5000)
                self.assertTrue(answer.count == 0 and answer.ms < 4000, answer)

    def test_poller_names_the_kernels_refusals(self):
        for code in ("ENOSPC", "ENOMEM"):
            with self.subTest(code):
                self.follow("epoll_ctl:error=%s:when=2" % code)
                self.ok("poller", "epoll")  # its wake descriptor is the first
                self.ok("bind", "u", ":0")
                self.check(code, self.do("add", "u", "r"))
                self.ok("add", "u", "r")
                self.ok("poll", 0)

    def test_what_the_kernel_lacks_is_enotsup(self):
        server, where = self.listener()
        self.follow("setsockopt:error=ENOPROTOOPT")
        self.ok("connect", "c", where, 5000)
        self.check("ENOTSUP", self.do("set", "c", "NODELAY", 1))
        self.check("ENOTSUP", self.do("set", "c", "TTL", 5))


def traceable():
    try:
        done = subprocess.run(["strace", "-o", os.devnull, "true"], stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    os.environ["ASAN_OPTIONS"] = "exitcode=99:detect_leaks=0"  # which needs ptrace for itself
    peers.need_native()
    peers.need("strace")
    if not traceable():
        print("SKIP strace may not trace here")
        sys.exit(77)
    peers.main()
