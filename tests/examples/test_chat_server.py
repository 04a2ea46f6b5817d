#!/usr/bin/env python3
"""Drives examples/apps/chat_server.c: its commands, rooms, limits and end, with Python's sockets and
several netcats."""
import os
import re
import select
import signal
import socket
import struct
import time

from common import (EMULATOR, Run, Skip, WINE, check, check_equal, cpu_seconds, fact, main,
                    memory_kib, native, need_ipv6, openbsd_nc, program, receive_all, tool)

PROGRAM = program("chat_server")


def server(*options, **more):
    return Run([PROGRAM] + [str(o) for o in options] + ["127.0.0.1:0"], **more)


class Chatter:
    """A client that speaks and hears lines. Answers pings unless told not to."""

    def __init__(self, p, name=None, host="127.0.0.1", greeting=b"WELCOME", pong=True):
        self.s = socket.create_connection((host, p.port()))
        self.s.settimeout(20)
        self.pong = pong
        self.buffer = b""
        if greeting:
            self.hears(greeting)
        if name:
            self.asks("LOGIN " + name, "OK you are " + name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def says(self, text):
        self.s.sendall((text if isinstance(text, bytes) else text.encode()) + b"\n")

    def line(self):
        """The next line, without its end; None: the stream ended."""
        while True:
            while b"\n" not in self.buffer:
                data = self.s.recv(4096)
                if not data:
                    check_equal(b"", self.buffer, "half a line at the end")
                    return None
                self.buffer += data
            line, _, self.buffer = self.buffer.partition(b"\n")
            if line != b"PING" or not self.pong:
                return line
            self.says("PONG")

    def hears(self, *lines):
        for want in lines:
            want = want if isinstance(want, bytes) else want.encode()
            check_equal(want, self.line(), "line")

    def asks(self, question, answer):
        self.says(question)
        self.hears(answer)

    def until(self, pattern):
        """Skip lines until one matches."""
        while True:
            line = self.line()
            check(line is not None, "ended before %r" % pattern)
            if re.search(pattern, line):
                return line

    def ended(self):
        check_equal(None, self.line(), "line at the end")


# --- the protocol ---

@fact
def a_scripted_session_without_a_name():
    with server() as p, Chatter(p) as c:
        c.asks("HELLO", "HELLO guest")
        c.asks("  hello  ", "HELLO guest")
        c.asks("PING", "PONG")
        c.says("GET TIME")
        check(re.fullmatch(rb"TIME \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", c.line()), "no ISO 8601 time")
        c.says("get status")
        check(re.fullmatch(rb"STATUS 1 clients, 0 refused, up \d+ s", c.line()), "no status")
        c.asks("ECHO  any  text ", "any  text")
        c.asks("NONSENSE", "ERROR no such command")
        c.asks("HELLOWORLD", "ERROR no such command")
        c.asks("HELLO world", "ERROR no such command")
        c.asks("AUTH secret", "ERROR first LOGIN")
        c.asks("QUIT", "BYE")
        c.ended()


@native
def names():
    with server() as p, Chatter(p) as c:
        c.asks("WHOAMI", "ERROR first LOGIN")
        c.asks("LOGIN", "ERROR a name has 1 to 16 letters and digits")
        c.asks("LOGIN two words", "ERROR a name has 1 to 16 letters and digits")
        c.asks("LOGIN " + "x" * 17, "ERROR a name has 1 to 16 letters and digits")
        c.asks("LOGIN ann", "OK you are ann")
        c.says("WHOAMI")
        check(re.fullmatch(rb"ann, client \d+, in lobby", c.line()), "who am I?")
        c.asks("LOGIN bob", "ERROR not again")
        with Chatter(p) as d:
            d.asks("LOGIN ann", "ERROR somebody has this name")
            d.asks("LOGIN dan", "OK you are dan")
            c.hears("* dan joined")
            d.says("WHOAMI")
            check(d.line().startswith(b"dan, "), "who am I?")
        c.hears("* dan left")
        with Chatter(p, "dan"):  # the name is free again
            c.hears("* dan joined")
        c.hears("* dan left")


@fact
def lines_come_in_any_pieces():
    with server("--lines", "1000") as p, Chatter(p) as c:
        for piece in b"PI", b"N", b"G\nPING", b"\r\nECHO a\nECHO b\nEC", b"HO c\n":
            c.s.sendall(piece)
            time.sleep(0.02)  # else they would arrive as one
        c.hears("PONG", "PONG", "a", "b", "c")
        for byte in b"ECHO one by one\nQUIT\n":
            c.s.sendall(bytes([byte]))
        c.hears("one by one", "BYE")
        c.ended()


@native
def what_follows_quit_is_ignored():
    with server() as p, Chatter(p) as c:
        c.asks("QUIT\nPING\nECHO x", "BYE")
        c.ended()


@fact
def rooms_keep_their_talk():
    with server() as p, Chatter(p, "ann") as ann, Chatter(p, "bob") as bob:
        ann.hears("* bob joined")
        ann.says("hello bob")
        bob.hears("ann: hello bob")
        bob.says("SAY who is there")
        ann.hears("bob: who is there")
        bob.asks("JOIN garden", "OK you are in garden")
        ann.hears("* bob left")
        ann.says("nobody hears this")
        with Chatter(p, "cid") as cid:
            ann.hears("* cid joined")
            cid.asks("JOIN garden", "OK you are in garden")
            ann.hears("* cid left")
            bob.hears("* cid joined")
            cid.says("flowers")
            bob.hears("cid: flowers")
            cid.says("WHO")
            check_equal({b"bob", b"cid"}, set(cid.line().split()[1:]), "who")
        bob.hears("* cid left")
        bob.asks("JOIN not/good", "ERROR a room's name has 1 to 16 letters and digits")
        ann.asks("WHO", "WHO ann")
        bob.asks("JOIN lobby", "OK you are in lobby")
        ann.hears("* bob joined")


@fact
def both_sides_speak_at_their_own_pace():
    with server("--lines", "1000") as p, Chatter(p, "ann") as ann, Chatter(p, "bob") as bob:
        ann.hears("* bob joined")
        from_ann, from_bob = [], []
        due_ann = due_bob = time.monotonic()
        a = b = 0
        while len(from_ann) < 30 or len(from_bob) < 20:
            now = time.monotonic()
            if a < 30 and now >= due_ann:
                ann.says("ann line %d" % a)
                a, due_ann = a + 1, due_ann + 0.02
            if b < 20 and now >= due_bob:
                bob.says("bob line %d" % b)
                b, due_bob = b + 1, due_bob + 0.03
            for who, got in (ann, from_bob), (bob, from_ann):
                while who.buffer.count(b"\n") or select.select([who.s], [], [], 0.002)[0]:
                    got.append(who.line())
        check_equal([b"ann: ann line %d" % i for i in range(30)], from_ann, "what bob heard")
        check_equal([b"bob: bob line %d" % i for i in range(20)], from_bob, "what ann heard")


@native
def text_that_steers_terminals_does_not_pass():
    with server() as p, Chatter(p, "ann") as ann, Chatter(p, "bob") as bob:
        ann.hears("* bob joined")
        for bad in b"\x1b[2J", b"a\rb", b"a\0b", b"\xff\xfe":
            ann.asks(bad, "ERROR that is no text")
        ann.says("gr\u00fc\u00df dich")
        bob.hears("ann: gr\u00fc\u00df dich")


@native
def a_password_is_asked_first():
    env = dict(os.environ, CHAT_PASSWORD="open sesame")
    with server(env=env) as p:
        with Chatter(p, greeting=b"READY") as c:
            c.asks("ECHO hello", "ERROR first AUTH")
            c.asks("LOGIN ann", "ERROR first AUTH")
            c.asks("PING", "PONG")
            c.asks("AUTH open sesame", "OK")
            c.asks("ECHO hello", "hello")
            c.asks("AUTH open sesame", "ERROR first LOGIN")
            c.asks("LOGIN ann", "OK you are ann")
        for wrong in "", "open", "open sesame and more", "Open sesame", "xpen sesame":
            with Chatter(p, greeting=b"READY") as c:
                c.asks("AUTH " + wrong + "\nPING", "ERROR wrong password")
                c.ended()
        p.expect(rb"WARN #\d+ wrong password", p.err)
        check(b"sesame" not in p.err, "the log tells the password")


# --- limits ---

@fact
def the_client_above_the_limit_is_told():
    with server("--max", 5) as p:
        clients = [Chatter(p) for _ in range(5)]
        try:
            for _ in range(3):  # and it is not counted, also while it stays
                clients.append(Chatter(p, greeting=b"ERROR server full"))
                clients[-1].ended()
            p.expect(rb"WARN #0 refused 127\.0\.0\.1:\d+: ", p.err)
            clients[0].asks("QUIT", "BYE")
            clients[0].ended()
            clients.pop(0).s.close()
            deadline = time.monotonic() + 10
            while True:
                with Chatter(p, greeting=None) as c:
                    if c.line() == b"WELCOME":
                        break
                check(time.monotonic() < deadline, "no room after one has left")
            clients[0].asks("PING", "PONG")
        finally:
            for c in clients:
                c.s.close()


@native
def one_host_has_a_limit_of_its_own():
    with server("--host-max", 3) as p:
        clients = [Chatter(p) for _ in range(3)]
        try:
            with Chatter(p, greeting=b"ERROR server full") as c:
                c.ended()
            if EMULATOR:
                return
            s = socket.socket()  # the other ones of 127.0.0.0/8 are other hosts
            s.bind(("127.0.0.2", 0))
            s.settimeout(10)
            with s:
                s.connect(("127.0.0.1", p.port()))
                check_equal(b"WELCOME\n", receive_all(s, 8), "greeting of another host")
        finally:
            for c in clients:
                c.s.close()


@native
def too_many_new_clients_of_a_host_are_refused():
    with server("--connects", 6) as p:
        for _ in range(6):
            with Chatter(p) as c:
                c.asks("PING", "PONG")
        with Chatter(p, greeting=b"ERROR server full") as c:
            c.ended()


@native
def who_sends_too_many_lines_is_read_more_slowly():
    with server("--lines", 10) as p, Chatter(p) as c, Chatter(p) as other:
        start = time.monotonic()
        for i in range(30):
            c.says("ECHO %d" % i)
        c.hears(*["%d" % i for i in range(10)])
        other.asks("PING", "PONG")
        check(time.monotonic() - start < 1, "the first ones waited")
        c.hears(*["%d" % i for i in range(10, 30)])
        check(time.monotonic() - start > 1.9, "took %.2f s" % (time.monotonic() - start))


@native
def a_long_line_ends_the_client_whether_it_ends_or_not():
    with server() as p:
        for text in b"x" * 513, b"x" * 100000, b"x" * 513 + b"\n":
            with Chatter(p) as c:
                try:
                    c.s.sendall(text)
                except ConnectionError:
                    pass
                c.hears("ERROR line too long")
                c.ended()
        with Chatter(p) as c:
            c.asks("ECHO " + "x" * 507, "x" * 507)


@native
def who_does_not_read_is_cut_and_costs_the_others_nothing():
    with server("--lines", 100000, "--idle", 1000) as p:
        with Chatter(p, "ann") as ann, Chatter(p, "bob") as bob:
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", p.port()))
            s.sendall(b"LOGIN slow\n")
            ann.until(rb"slow joined")
            bob.until(rb"slow joined")
            text, sent = b"x" * 500, 0
            while sent < 64 << 20:
                for _ in range(20):
                    ann.says(text)
                for _ in range(20):
                    line = bob.line()
                    if line == b"* slow left":
                        break
                    check_equal(b"ann: " + text, line, "what bob heard")
                if line == b"* slow left":
                    break
                sent += 20 * len(text)
            check(sent < 64 << 20, "it was never cut")
            p.expect(rb"WARN #\d+ does not read: cut off", p.err)
            ann.until(rb"slow left")
            ann.asks("PING", "PONG")
            s.close()


# --- silence ---

@native
def the_silent_are_asked_and_then_gone():
    with server("--silence", 1) as p:
        start = time.monotonic()
        with Chatter(p, pong=False) as silent, Chatter(p) as other:
            silent.hears("PING")
            asked = time.monotonic() - start
            check(asked > 0.45, "asked after %.2f s" % asked)
            for _ in range(12):  # one that says anything stays
                other.says("ECHO x")
                other.until(rb"^x$")
                time.sleep(0.05)
            silent.until(rb"BYE no answer")
            took = time.monotonic() - start
            check(0.95 < took < 4, "gone after %.2f s" % took)
            silent.ended()
            other.asks("ECHO still here", "still here")
        p.expect(rb"WARN #\d+ silent: gone", p.err)


@native
def who_answers_pings_stays():
    with server("--silence", 0.6) as p, Chatter(p) as c:
        end = time.monotonic() + 2
        pings = 0
        c.pong = False
        while time.monotonic() < end:
            check_equal(b"PING", c.line(), "line")
            c.says("PONG")
            pings += 1
        check(pings >= 3, "%d pings" % pings)
        c.pong = True
        c.asks("HELLO", "HELLO guest")


@native
def half_a_line_is_silence():
    with server("--silence", 0.8) as p, Chatter(p, pong=False) as c:
        start = time.monotonic()
        try:
            while time.monotonic() - start < 5:
                c.s.sendall(b"x")
                if select.select([c.s], [], [], 0.1)[0] and c.line() == b"BYE no answer":
                    break
        except ConnectionError:
            pass
        took = time.monotonic() - start
        check(0.75 < took < 4, "gone after %.2f s" % took)


@native
def what_others_say_is_no_sign_of_life():
    with server("--silence", 1, "--lines", 1000) as p:
        with Chatter(p, "ann") as ann, Chatter(p, "mute", pong=False) as mute:
            start = time.monotonic()
            while time.monotonic() - start < 5:
                ann.says("still talking")
                time.sleep(0.05)
                if select.select([ann.s], [], [], 0)[0] and ann.line() == b"* mute left":
                    break
            took = time.monotonic() - start
            check(0.95 < took < 4, "gone after %.2f s" % took)
            mute.until(rb"BYE no answer")


@native
def who_only_answers_pings_is_idle():
    with server("--silence", 0.4, "--idle", 1.2) as p, Chatter(p) as c, Chatter(p) as other:
        start = time.monotonic()
        while True:
            other.says("ECHO x")
            other.until(rb"^x$")
            if select.select([c.s], [], [], 0.1)[0]:
                line = c.line()
                if line == b"BYE idle":
                    break
            check(time.monotonic() - start < 10, "never idle")
        check(time.monotonic() - start > 1.1, "idle too early")
        c.ended()


@fact
def a_link_that_died_is_freed():
    # A peer that vanished looks like this: nothing comes, and its kernel does not answer an end.
    with server("--silence", 0.5) as p, Chatter(p, "ann") as ann:
        with Chatter(p, "ghost", pong=False) as ghost:
            ann.hears("* ghost joined")
            ann.hears("* ghost left")
            ann.asks("LOGIN x", "ERROR not again")
            with Chatter(p, "ghost"):  # exactly once: the name is free
                ann.hears("* ghost joined")
            ann.hears("* ghost left")
            ghost.until(rb"BYE no answer")


# --- the end ---

def need_signals():
    if WINE:
        raise Skip("no signals under Wine")


@native
def clients_are_told_when_it_stops():
    need_signals()
    with server() as p, Chatter(p, "ann") as ann, Chatter(p) as guest:
        port = p.port()
        p.process.send_signal(signal.SIGTERM)
        ann.hears("BYE the server stops")
        ann.ended()
        guest.hears("BYE the server stops")
        guest.ended()
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            raise AssertionError("late arrivals are let in")
        except ConnectionRefusedError:
            pass
        ann.s.close()
        guest.s.close()
        check_equal(0, p.wait(3), "exit code")
        p.expect(rb"INFO #0 stopping", p.err)


@native
def who_does_not_close_is_cut_when_the_grace_is_over():
    need_signals()
    with server("--grace", 1) as p, Chatter(p, "ann") as ann, Chatter(p, "bob") as bob:
        start = time.monotonic()
        p.process.send_signal(signal.SIGTERM)
        bob.until(rb"BYE the server stops")
        bob.s.close()
        # ann keeps her end open
        check_equal(0, p.wait(10), "exit code")
        took = time.monotonic() - start
        check(0.95 < took < 3, "took %.2f s" % took)
        ann.until(rb"BYE the server stops")


@native
def a_second_signal_ends_it_at_once():
    need_signals()
    with server("--grace", 20) as p, Chatter(p, "ann"):
        p.process.send_signal(signal.SIGTERM)
        p.expect(rb"stopping", p.err)
        start = time.monotonic()
        p.process.send_signal(signal.SIGTERM)
        check_equal(0, p.wait(10), "exit code")
        check(time.monotonic() - start < 1.5, "took %.2f s" % (time.monotonic() - start))


@native
def the_log_has_time_level_and_client():
    with server() as p:
        with Chatter(p, "ann") as ann:
            ann.says("x" * 600)
            ann.until(rb"ERROR line too long")
            ann.ended()
        with Chatter(p) as c:
            c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        p.expect(rb"#\d+ ended.*#\d+ ended", p.err)
        for line in bytes(p.err).replace(b"\r\n", b"\n").splitlines():
            check(re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (ERROR|WARN|INFO|DEBUG) #\d+ "
                               rb"[ -~]+", line), repr(line))
        check(re.search(rb"INFO #(\d+) connected from 127\.0\.0\.1:\d+\r?\n.*INFO #\1 is ann\r?\n"
                        rb".*WARN #\1 line too long\r?\n.*INFO #\1 ended", p.err, re.S),
              repr(bytes(p.err)))


@fact
def a_crowd_comes_and_goes_without_a_trace():
    with server("--lines", 1000, "--connects", 100000) as p, Chatter(p, "ann") as ann:
        def crowd(count):
            for i in range(count):
                with Chatter(p, "guest%d" % i, pong=False) as c:
                    ann.until(rb"joined")
                    if i % 3 == 0:
                        c.asks("JOIN room%d" % i, "OK you are in room%d" % i)
                    elif i % 3 == 1:
                        c.asks("QUIT", "BYE")
                ann.until(rb"left")
        crowd(100)
        before = memory_kib(p.pid)
        crowd(300)
        grown = memory_kib(p.pid) - before
        check(grown < 1024, "grew by %d KiB" % grown)
        ann.asks("WHO", "WHO ann")


@native
def it_uses_little_while_nobody_speaks():
    with server() as p, Chatter(p, "ann"):
        used = cpu_seconds(p.pid)[0]
        time.sleep(1)  # the silence is what is measured
        used = cpu_seconds(p.pid)[0] - used
        check(used < 0.03, "%.0f ms of a second" % (1000 * used))


# --- clients that others wrote ---

def talk_by(command):
    """Three netcats that talk; the last one to join is the first to leave."""
    with server() as p:
        port = str(p.port())
        names = "ann", "bob", "cid"
        clients = []
        try:
            for name in names:
                c = Run(command + ["127.0.0.1", port], emulate=False)
                clients.append(c)
                c.feed(b"login %s\n" % name.encode())
                c.expect(rb"OK you are %s\n" % name.encode())
            ann, bob, cid = clients
            ann.expect(rb"\* bob joined\n\* cid joined\n")
            ann.feed(b"hello all\n")
            for c in bob, cid:
                c.expect(rb"\nann: hello all\n")
            cid.feed(b"quit\n")
            cid.expect(rb"\nBYE\n")
            cid.end_input()
            check_equal(0, cid.wait(), "exit code of %s" % command[0])
            bob.expect(rb"\* cid left\n")
            check(b"hello all" not in ann.out, "it heard itself")
        finally:
            for c in clients:
                c.__exit__(None, None, None)


@native
def netcats_talk():
    talk_by([openbsd_nc(), "-N"])


@native
def ncats_talk():
    talk_by([tool("ncat")])


@native
def both_families_meet():
    need_ipv6()
    with Run([PROGRAM, ":0"]) as p:
        with Chatter(p, "ann") as ann, Chatter(p, "six", host="::1") as six:
            ann.hears("* six joined")
            six.says("hello from afar")
            ann.hears("six: hello from afar")


@native
def wrong_use_is_said():
    for words in ("--max",), ("--what", "1"), ("--max", "none"), ("--lines", "-1"):
        with Run([PROGRAM] + list(words)) as p:
            check_equal(2, p.wait(), "exit code of %r" % (words,))
            check(b"usage: chat_server" in p.err, repr(bytes(p.err)))
    with Run([PROGRAM, "127.0.0.1:99999"]) as p:
        check_equal(1, p.wait(), "exit code")
        check(b"127.0.0.1:99999: " in p.err, repr(bytes(p.err)))


main("chat_server")
