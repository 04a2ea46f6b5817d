#!/usr/bin/env python3
"""Drives examples/apps/load.c against the echo servers among the examples, socat, and servers of
Python's that lose, delay, change or end."""
import random
import re
import signal
import socket
import threading
import time

from common import (Run, Skip, WINE, check, check_equal, fact, main, native, program, run, tool)

PROGRAM = program("load")
TCP_SERVER = program("tcp_echo_server")
UDP_SERVER = program("udp_echo")
NUMBER = r"([\d.]+)"


class Report:
    def __init__(self, text):
        text = text.replace("\r\n", "\n")
        self.text = text

        def numbers(pattern):
            got = re.search(pattern, text)
            return [float(g) for g in got.groups()] if got else None
        self.connected = numbers(r"connections  %s of %s in %s ms, %s a second" % ((NUMBER,) * 4))
        self.echoes = numbers(r"echoes       %s in %s s: %s a second, %s MB/s each way" %
                              ((NUMBER,) * 4))
        self.latency = numbers(r"latency us   min %s, average %s, p50 %s, p90 %s, p99 %s, p99.9 %s, "
                               r"max %s" % ((NUMBER,) * 7))
        self.mismatched = numbers(r"mismatched   %s" % NUMBER)
        self.lost = numbers(r"lost         %s of %s \(%s %%\); %s late or twice" % ((NUMBER,) * 4))
        self.partial = re.search(r"PARTIAL      (\d+) not connected, (\d+) ended early, "
                                 r"(\d+) echoes did not come: (.*)", text)
        check(self.echoes and self.mismatched, "no report: %r" % text)

    def check_sound(self, seconds, size):
        """The figures of one report agree with each other."""
        count, took, rate, megabytes = self.echoes
        check(count > 0, self.text)
        check(seconds * 0.99 < took < seconds + 2, "took %g s" % took)
        # The times are printed with two digits.
        check(count / (took + 0.006) - 1 <= rate <= count / (took - 0.006) + 1, "rate: " + self.text)
        check(abs(megabytes - rate * size / 1e6) < 0.06 + size / 1e6, "MB/s: " + self.text)
        least, average, *parts, most = self.latency
        check(least <= average <= most and least <= parts[0], "latency: " + self.text)
        check(parts == sorted(parts) and parts[-1] <= most, "percentiles: " + self.text)


def load(*words, timeout=60):
    code, out, err = run([PROGRAM] + [str(w) for w in words], timeout=timeout)
    check_equal("", err, "error output")
    return code, Report(out.decode())


def tcp_server():
    return Run([TCP_SERVER, "127.0.0.1:0"])


def udp_server():
    return Run([UDP_SERVER, "127.0.0.1:0"])


class Bad:
    """A server in a thread: `body` gets its socket."""

    def __init__(self, kind, body):
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            self.socket.listen(128)
        self.socket.settimeout(0.1)
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.done = False
        self.thread = threading.Thread(target=body, args=(self,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done = True
        self.thread.join(10)
        self.socket.close()

    def datagrams(self):
        while not self.done:
            try:
                yield self.socket.recvfrom(65536)
            except (socket.timeout, ConnectionError):
                pass

    def client(self):
        while not self.done:
            try:
                s, _ = self.socket.accept()
                s.settimeout(0.1)
                return s
            except socket.timeout:
                pass

    def pieces(self, s):
        """What the client sends, until it ends."""
        while not self.done:
            try:
                data = s.recv(65536)
                if not data:
                    return
                yield data
            except socket.timeout:
                pass
            except ConnectionError:
                return


# --- TCP ---

@fact
def a_thousand_connections_without_a_wrong_echo():
    count = 50 if WINE else 1000
    if not WINE:
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < count + 100:
            raise Skip("needs %d descriptors, the limit is %d" % (count + 100, hard))
        if soft != resource.RLIM_INFINITY and soft < count + 100:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, hard))
    with tcp_server() as p:
        code, r = load("--connections", count, "--seconds", 1, p.address())
        check_equal((0, None), (code, r.partial), r.text)
        check_equal([count, count], r.connected[:2], "connections")
        check(r.connected[2] > 0 and abs(r.connected[3] / (1000 * count / r.connected[2]) - 1) < 0.1,
              "rate of connections: " + r.text)
        check_equal([0], r.mismatched, "mismatched")
        r.check_sound(1, 64)


@fact
def many_in_flight_and_large_ones():
    with tcp_server() as p:
        for size, flight in (1, 100), (16384, 16), (300001, 3), (1048576, 4):
            code, r = load("--connections", 3, "--size", size, "--flight", flight, "--seconds", 0.4,
                           p.address())
            check_equal((0, None, [0]), (code, r.partial, r.mismatched), r.text)
            r.check_sound(0.4, size)


@native
def names_are_looked_up():
    with tcp_server() as p:
        code, r = load("--seconds", 0.2, "localhost:%d" % p.port())
        check_equal(0, code, r.text)


@native
def a_delay_shows_as_latency():
    def slow(bad):
        s = bad.client()
        for data in bad.pieces(s):
            time.sleep(0.02)
            s.sendall(data)
        s.close()
    with Bad(socket.SOCK_STREAM, slow) as bad:
        code, r = load("--connections", 1, "--seconds", 0.5, bad.address)
    check_equal(0, code, r.text)
    check(r.latency[0] >= 20000 and 20000 <= r.latency[2] < 100000, r.text)
    check(5 <= r.echoes[0] <= 25, r.text)


@native
def changed_echoes_are_counted():
    def liar(bad):
        s = bad.client()
        count = 0
        for data in bad.pieces(s):
            count += 1
            if count % 10 == 0:
                data = bytes([data[0] ^ 1]) + data[1:]
            s.sendall(data)
        s.close()
    with Bad(socket.SOCK_STREAM, liar) as bad:
        code, r = load("--connections", 1, "--seconds", 0.3, bad.address)
    check_equal(1, code, "exit code of %r" % r.text)
    check(abs(r.mismatched[0] - r.echoes[0] / 10) <= 1, r.text)


@native
def more_than_was_asked_is_no_echo():
    def chatty(bad):
        s = bad.client()
        for data in bad.pieces(s):
            try:
                s.sendall(data + b"and more")
            except ConnectionError:
                break
        s.close()
    with Bad(socket.SOCK_STREAM, chatty) as bad:
        code, r = load("--connections", 1, "--seconds", 0.2, bad.address)
    check_equal(1, code, "exit code of %r" % r.text)
    check(r.mismatched[0] > 0, r.text)


@native
def the_report_is_partial_when_the_server_dies():
    with tcp_server() as server:
        with Run([PROGRAM, "--seconds", "30", server.address()]) as p:
            p.expect(rb"connections  50 of 50")
            time.sleep(0.5)  # so long it goes well
            server.process.kill()
            server.process.wait()
            check_equal(1, p.wait(10), "exit code")
            r = Report(bytes(p.out).decode())
    check(r.partial, r.text)
    check_equal(("0", "50"), r.partial.groups()[:2], r.text)
    check(r.echoes[0] > 0 and 0.2 < r.echoes[1] < 10, r.text)


@native
def some_connections_that_end_are_said_and_the_others_go_on():
    def quitter(bad):
        for _ in range(2):
            s = bad.client()
            threading.Thread(target=talk, args=(bad, s, _ == 0), daemon=True).start()

    def talk(bad, s, quits):
        for count, data in enumerate(bad.pieces(s)):
            if quits and count == 5:
                break
            s.sendall(data)
        s.close()
    with Bad(socket.SOCK_STREAM, quitter) as bad:
        code, r = load("--connections", 2, "--seconds", 0.4, bad.address)
    check_equal(1, code, "exit code")
    check(r.partial and r.partial.groups()[:2] == ("0", "1"), r.text)
    r.check_sound(0.4, 64)


@fact
def nobody_there_is_said():
    with socket.create_server(("127.0.0.1", 0)) as s:
        nobody = "127.0.0.1:%d" % s.getsockname()[1]
    code, r = load("--connections", 200, nobody)
    check_equal(1, code, "exit code")
    check_equal("200", r.partial.group(1), r.text)
    check("connection refused" in r.partial.group(4), r.text)
    code, r = load("no such host:1")
    check_equal(1, code, "exit code")
    check(r.partial, r.text)


@native
def an_echo_that_never_comes_is_said():
    def hole(bad):
        s = bad.client()
        for _ in bad.pieces(s):
            pass
        s.close()
    with Bad(socket.SOCK_STREAM, hole) as bad:
        code, r = load("--connections", 1, "--flight", 3, "--seconds", 0.2, bad.address)
    check_equal(1, code, "exit code")
    check_equal("3", r.partial.group(3), r.text)


@native
def ctrl_c_ends_it_with_a_report():
    if WINE:
        raise Skip("no signals under Wine")
    with tcp_server() as server:
        with Run([PROGRAM, "--seconds", "30", server.address()]) as p:
            p.expect(rb"connections  50 of 50")
            time.sleep(0.5)  # so long it measures
            check_equal(0, p.stop(signal.SIGINT), "exit code")
            r = Report(bytes(p.out).decode())
    check(r.echoes[0] > 0 and 0.1 < r.echoes[1] < 5, r.text)


@native
def socat_as_the_server():
    socat = tool("socat")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with Run([socat, "-d", "-d", "TCP-LISTEN:%d,bind=127.0.0.1,fork,reuseaddr" % port, "PIPE"],
             emulate=False) as server:
        server.expect(rb"listening on", server.err)
        code, r = load("--connections", 5, "--seconds", 0.4, "127.0.0.1:%d" % port)
    check_equal(0, code, r.text)
    r.check_sound(0.4, 64)


# --- UDP ---

@fact
def datagrams_come_back():
    with udp_server() as p:
        for size, flight, sockets in (64, 32, 1), (8, 1, 4), (1400, 4, 3), (60000, 1, 1):
            code, r = load("--udp", "--size", size, "--flight", flight, "--connections", sockets,
                           "--seconds", 0.4, p.address())
            check_equal((0, None, [0]), (code, r.partial, r.mismatched), r.text)
            r.check_sound(0.4, size)
            check(r.lost[2] < 1, r.text)


@fact
def lost_datagrams_are_counted():
    dropped = 0

    def lossy(bad):
        nonlocal dropped
        rng = random.Random(7)
        for data, peer in bad.datagrams():
            if rng.random() < 0.1:
                dropped += 1
            else:
                bad.socket.sendto(data, peer)
    with Bad(socket.SOCK_DGRAM, lossy) as bad:
        code, r = load("--udp", "--connections", 2, "--flight", 4, "--limit", 100, "--seconds", 1,
                       bad.address)
    check_equal(0, code, r.text)  # losing is what datagrams may do
    check_equal(dropped, int(r.lost[0]), "lost in %s" % r.text)
    check_equal(r.echoes[0] + r.lost[0], r.lost[1], "all")
    check(abs(r.lost[2] - 100 * r.lost[0] / r.lost[1]) < 0.001, r.text)


@native
def late_and_repeated_echoes_are_no_echoes():
    def twice(bad):
        for data, peer in bad.datagrams():
            bad.socket.sendto(data, peer)
            bad.socket.sendto(data, peer)
    with Bad(socket.SOCK_DGRAM, twice) as bad:
        code, r = load("--udp", "--connections", 1, "--seconds", 0.3, bad.address)
    check_equal((0, 0), (code, r.lost[0]), r.text)
    check(abs(r.lost[3] - r.echoes[0]) <= 1, r.text)

    def slow(bad):
        for data, peer in bad.datagrams():
            time.sleep(0.15)
            bad.socket.sendto(data, peer)
    with Bad(socket.SOCK_DGRAM, slow) as bad:
        code, r = load("--udp", "--connections", 1, "--limit", 50, "--seconds", 0.6, bad.address)
    check_equal(1, code, "exit code without one echo")
    check(r.echoes[0] == 0 and r.lost[0] > 0 and r.lost[3] > 0, r.text)


@native
def changed_datagrams_are_counted():
    def liar(bad):
        count = 0
        for data, peer in bad.datagrams():
            count += 1
            if count % 10 == 0:
                data = data[:-1] + bytes([data[-1] ^ 1])
            if count % 10 == 5:
                data = data[:-1]
            bad.socket.sendto(data, peer)
    with Bad(socket.SOCK_DGRAM, liar) as bad:
        code, r = load("--udp", "--connections", 1, "--flight", 8, "--limit", 20, "--seconds", 0.5,
                       bad.address)
    check_equal(1, code, "exit code")
    check(r.mismatched[0] > 0, r.text)
    share = r.mismatched[0] / (r.mismatched[0] + r.echoes[0])
    check(0.1 < share < 0.35, "share %.2f: %s" % (share, r.text))


@native
def a_udp_server_that_dies_ends_it():
    with udp_server() as server:
        with Run([PROGRAM, "--udp", "--seconds", "30", server.address()]) as p:
            time.sleep(0.5)  # so long it goes well
            server.process.kill()
            server.process.wait()
            code = p.wait(15)
            check_equal(1, code, "exit code")
            r = Report(bytes(p.out).decode())
    check(r.partial and "connection refused" in r.partial.group(4), r.text)
    check(r.echoes[0] > 0 and r.echoes[1] < 10, r.text)


@native
def wrong_use_is_said():
    for words in (), ("--size", "0", "x:1"), ("--flight",), ("--udp", "--size", "7", "x:1"), \
            ("--udp", "--size", "65508", "x:1"), ("--what", "1", "x:1"), ("--seconds", "no", "x:1"):
        code, _, err = run([PROGRAM] + list(words))
        check_equal(2, code, "exit code of %r" % (words,))
        check("usage: load" in err, repr(err))


main("load")
