#!/usr/bin/env python3
"""Drives examples/apps/tcp_proxy.c between Python's sockets, in each of its ways. curl is a witness."""
import hashlib
import select
import signal
import socket
import time

from common import (Run, Skip, WINE, check, check_equal, check_idle, end_of, fact, in_thread, main,
                    memory_kib, payload, program, receive_all, reset, run, tool)

MIB = 1 << 20
PROGRAM = program("tcp_proxy")
WAYS = (), ("--by-hand",), ("--log",)


class Proxy(Run):
    """The proxy, and the listener that it connects to."""

    def __init__(self, *options, target=None):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.listener.settimeout(30)
        target = target or "127.0.0.1:%d" % self.listener.getsockname()[1]
        super().__init__([PROGRAM] + list(options) + ["127.0.0.1:0", target])

    def __exit__(self, *details):
        self.listener.close()
        super().__exit__(*details)

    def link(self):
        """Both ends of a new link: the client's socket, the target's."""
        client = socket.create_connection(("127.0.0.1", self.port()))
        target, _ = self.listener.accept()
        target.settimeout(30)
        return client, target

    def ended(self, number=1):
        """Bytes to the target and back that a link is said to have passed."""
        got = self.expect(rb"#%d ended: (\d+) bytes to the target, (\d+) back" % number)
        return int(got.group(1)), int(got.group(2))


def each_way(function):
    """Run a check for each way of relaying."""
    for options in WAYS:
        try:
            with Proxy(*options) as p:
                function(p)
        except AssertionError as e:
            raise AssertionError("%s: %s" % (" ".join(options) or "relay", e))


def digest_of(s):
    """Length and hash of what comes until the end."""
    digest, size = hashlib.sha256(), 0
    buffer = bytearray(MIB)
    while True:
        n = s.recv_into(buffer)
        if n == 0:
            return size, digest.hexdigest()
        digest.update(memoryview(buffer)[:n])
        size += n


def pour(s, block, count):
    for _ in range(count):
        s.sendall(block)
    s.shutdown(socket.SHUT_WR)


@fact
def question_and_answer():
    def talk(p):
        client, target = p.link()
        with client, target:
            for text in b"hello", b"are you there?", bytes(range(256)):
                client.sendall(text)
                check_equal(text, receive_all(target, len(text)), "question")
                target.sendall(text.upper())
                check_equal(text.upper(), receive_all(client, len(text)), "answer")
    each_way(talk)


@fact
def the_target_may_speak_first():
    def greet(p):
        client, target = p.link()
        with client, target:
            target.sendall(b"220 welcome\r\n")
            check_equal(b"220 welcome\r\n", receive_all(client, 13), "greeting")
    each_way(greet)


@fact
def a_hundred_mib_each_way_at_once():
    block = payload(MIB)
    count = 10 if WINE else 100
    want = hashlib.sha256()
    for _ in range(count):
        want.update(block)

    def both(p):
        client, target = p.link()
        with client, target:
            pouring = [in_thread(pour, s, block, count) for s in (client, target)]
            got = in_thread(digest_of, target)
            check_equal((count * MIB, want.hexdigest()), digest_of(client), "to the client")
            check_equal((count * MIB, want.hexdigest()), got(), "to the target")
            for join in pouring:
                join()
            check_equal((count * MIB, count * MIB), p.ended(), "counted")
    each_way(both)


@fact
def one_direction_ends_and_the_other_goes_on():
    block = payload(MIB)

    def half(p):
        client, target = p.link()
        with client, target:
            client.sendall(b"all that I have to say")
            client.shutdown(socket.SHUT_WR)
            check_equal(b"all that I have to say", receive_all(target), "to the target")
            time.sleep(0.1)  # the end has long passed; the other direction must not care
            pouring = in_thread(pour, target, block, 8)
            check_equal(8 * MIB, digest_of(client)[0], "after the end of the other direction")
            pouring()
            check_equal((22, 8 * MIB), p.ended(), "counted")
    each_way(half)

    def other_half(p):
        client, target = p.link()
        with client, target:
            target.shutdown(socket.SHUT_WR)
            check_equal(b"", receive_all(client), "to the client")
            pouring = in_thread(pour, client, block, 8)
            check_equal(8 * MIB, digest_of(target)[0], "after the end of the other direction")
            pouring()
            check_equal((8 * MIB, 0), p.ended(), "counted")
    each_way(other_half)


@fact
def a_reset_on_one_side_resets_the_other():
    if WINE:
        raise Skip("Wine's server reads a socket's error by itself, and then a reset looks like an end")

    def client_resets(p):
        client, target = p.link()
        with target:
            client.sendall(b"12345")
            check_equal(b"12345", receive_all(target, 5), "before the reset")
            reset(client)
            check_equal("reset", end_of(target), "the target's end")
            check_equal((5, 0), p.ended(), "counted")
            p.expect(rb"#1 client: .*reset")
    each_way(client_resets)

    def target_resets(p):
        client, target = p.link()
        with client:
            target.sendall(b"1234567")
            check_equal(b"1234567", receive_all(client, 7), "before the reset")
            reset(target)
            check_equal("reset", end_of(client), "the client's end")
            check_equal((0, 7), p.ended(), "counted")
            p.expect(rb"#1 target: .*reset")
    each_way(target_resets)


@fact
def a_reader_that_stops_stops_the_sender_and_costs_no_memory():
    block = payload(MIB)

    def stall(p):
        client, target = p.link()
        with client, target:
            client.sendall(b"x")
            receive_all(target, 1)
            before = memory_kib(p.pid)
            sent = 0
            client.setblocking(False)
            while sent < 256 * MIB and select.select([], [client], [], 0.5)[1]:
                try:
                    sent += client.send(block)
                except BlockingIOError:
                    pass
            check(sent < 256 * MIB, "the proxy takes without end")
            grown = memory_kib(p.pid) - before
            check(grown < 2048, "grew by %d KiB for %d bytes" % (grown, sent))
            target.sendall(b"the other direction")
            client.setblocking(True)
            client.settimeout(30)
            check_equal(b"the other direction", receive_all(client, 19), "meanwhile")
            client.shutdown(socket.SHUT_WR)
            check_equal(sent, digest_of(target)[0], "what came in the end")
    each_way(stall)


@fact
def a_stalled_link_is_no_load():
    def stall(p):
        client, target = p.link()
        with client, target:
            client.setblocking(False)
            while select.select([], [client], [], 0.5)[1]:
                try:
                    client.send(b"x" * MIB)
                except BlockingIOError:
                    pass
            check_idle(p.pid, 0.5)
    each_way(stall)


@fact
def what_came_before_the_target_was_there_is_not_lost():
    def early(p):
        data = payload(200000)
        for i in range(20):
            with socket.create_connection(("127.0.0.1", p.port())) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                target, _ = p.listener.accept()
                with target:
                    target.settimeout(30)
                    got = receive_all(target)
                    check_equal(len(data), len(got), "bytes of link %d" % i)
                    check(data == got, "bytes differ")
    each_way(early)


@fact
def two_hundred_links_at_once():
    def many(p):
        links = [p.link() for _ in range(30 if WINE else 200)]
        try:
            for i, (client, target) in enumerate(links):
                client.sendall(b"question %06d" % i)
                target.sendall(b"answer %06d" % i)
            # Clients are accepted in order, but links to the target may race.
            questions = {receive_all(target, 15) for _, target in links}
            answers = {receive_all(client, 13) for client, _ in links}
            check_equal({b"question %06d" % i for i in range(len(links))}, questions, "questions")
            check_equal({b"answer %06d" % i for i in range(len(links))}, answers, "answers")
        finally:
            for pair in links:
                for s in pair:
                    s.close()
    each_way(many)


@fact
def a_target_that_refuses_ends_the_client_and_is_said():
    with socket.create_server(("127.0.0.1", 0)) as s:
        nobody = "127.0.0.1:%d" % s.getsockname()[1]

    def end_of_client(p):
        try:
            with socket.create_connection(("127.0.0.1", p.port())) as client:
                return end_of(client)
        except ConnectionResetError:  # so soon
            return "reset"
    for options in WAYS:
        with Proxy(*options, target=nobody) as p:
            check_equal("reset", end_of_client(p), "the client's end")
            p.expect(rb"#1 target: .*connection refused")
            check_equal((0, 0), p.ended(), "counted")
            check_equal("reset", end_of_client(p), "the next client's end")  # it lives on
            p.ended(2)


@fact
def a_client_that_leaves_while_the_target_is_dialed_is_forgotten():
    with Proxy(target="192.0.2.1:9") as p:  # nobody: a documentation address
        client = socket.create_connection(("127.0.0.1", p.port()))
        time.sleep(0.1)
        reset(client)
        p.expect(rb"#1 (client|target): [^\n]+\n.*#1 ended", timeout=20)


@fact
def the_log_shows_directions_lengths_and_text():
    with Proxy("--log") as p:
        client, target = p.link()
        with client, target:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            p.expect(rb"(?m)^\d+\.\d{3} #1 -> 18 bytes: GET / HTTP/1\.0\.\.\.\.\r?$")
            receive_all(target, 18)
            target.sendall(b"\0\1\x7f\xffok\x1b[31m" + b"x" * 200)
            p.expect(rb"(?m)^\d+\.\d{3} #1 <- 211 bytes: \.\.\.\.ok\.\[31mx{89}\r?$")


@fact
def curl_through_it():
    curl = tool("curl")
    body = payload(3 * MIB)

    def serve(listener):
        s, _ = listener.accept()
        with s:
            s.settimeout(30)
            head = b""
            while b"\r\n\r\n" not in head:
                head += s.recv(4096)
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def get(p):
        serving = in_thread(serve, p.listener)
        code, out, err = run([curl, "-sS", "http://127.0.0.1:%d/" % p.port()], emulate=False)
        serving()
        check_equal((0, len(body), ""), (code, len(out), err), "curl")
        check(out == body, "bytes differ")
    each_way(get)


@fact
def the_stop_lets_a_link_finish():
    if WINE:
        raise Skip("no signals under Wine")

    def finish(p):
        client, target = p.link()
        with client, target:
            client.sendall(b"question")
            receive_all(target, 8)
            p.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)  # it has heard that
            try:
                socket.create_connection(("127.0.0.1", p.port())).close()
                raise AssertionError("still accepts")
            except ConnectionRefusedError:
                pass
            target.sendall(b"answer")
            target.close()
            check_equal(b"answer", receive_all(client), "answer")
            client.close()
            check_equal(0, p.wait(3), "exit code")
    each_way(finish)


@fact
def a_second_signal_stops_it_at_once():
    if WINE:
        raise Skip("no signals under Wine")

    def stop(p):
        client, target = p.link()
        with client, target:
            p.process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            check(p.process.poll() is None, "it did not wait for the link")
            p.process.send_signal(signal.SIGINT)
            check_equal(0, p.wait(3), "exit code")
    each_way(stop)


@fact
def idle_costs_nothing():
    def idle(p):
        client, target = p.link()
        with client, target:
            client.sendall(b"x")
            receive_all(target, 1)
            check_idle(p.pid, 1)
    each_way(idle)


@fact
def wrong_use_is_said():
    check_equal(2, run([PROGRAM])[0], "exit code without arguments")
    code, _, err = run([PROGRAM, "127.0.0.1:99999", "127.0.0.1:1"])
    check_equal(1, code, "exit code")
    check("127.0.0.1:99999: " in err, repr(err))


main("tcp_proxy")
