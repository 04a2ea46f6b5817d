#!/usr/bin/env python3
"""Drives examples/udp_echo.c with Python's sockets, and with socat, ncat and nc if there."""
import signal
import socket
import time

from common import (WINE, Run, Skip, check, check_equal, check_idle, fact, in_thread, main,
                    need_ipv6, openbsd_nc, payload, program, run, tool)

PROGRAM = program("udp_echo")


def server(address="127.0.0.1:0"):
    return Run([PROGRAM, address])


def client(port, host="127.0.0.1"):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.connect((host, port))
    return s


def check_echo(s, data):
    s.send(data)
    check_equal(data, s.recv(1 << 16), "echo")


@fact
def every_size_comes_back_whole():
    with server() as p, client(p.port()) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for size in (1, 0, 2, 512, 1472, 1473, 9000, 65507):
            check_echo(s, payload(size))


@fact
def both_families_on_one_port():
    with server(":0") as p:
        port = p.port()
        with client(port) as s:
            check_echo(s, b"over IPv4")
        need_ipv6()
        with client(port, "::1") as s:
            check_echo(s, b"over IPv6")


@fact
def many_clients_get_their_own():
    with server() as p:
        port = p.port()
        clients = [client(port) for _ in range(100)]
        try:
            for i, s in enumerate(clients):
                s.send(b"client %d" % i)
            for i, s in enumerate(clients):
                check_equal(b"client %d" % i, s.recv(100), "echo")
        finally:
            for s in clients:
                s.close()


@fact
def a_client_that_left_hurts_nobody():
    with server() as p:
        port = p.port()
        with client(port) as other:
            for _ in range(100):
                with client(port) as s:
                    s.send(b"to a closed port")
                check_echo(other, b"still here")


@fact
def signals_end_it_cleanly():
    if WINE:
        raise Skip("no signals under Wine")
    for number in (signal.SIGTERM, signal.SIGINT):
        with server() as p, client(p.port()) as s:
            check_echo(s, b"hello")
            check_equal(0, p.stop(number), "exit code")
            check_equal(b"", bytes(p.err), "stderr")


@fact
def a_used_port_is_said():
    with server() as p:
        code, _, err = run([PROGRAM, "127.0.0.1:%d" % p.port()])
        check_equal(1, code, "exit code")
        check("address in use" in err, repr(err))


@fact
def idle_costs_nothing():
    with server() as p, client(p.port()) as s:
        check_echo(s, b"hello")
        check_idle(p.pid)


def ask(address, text):
    return run([PROGRAM, "--ask", address, text])


@fact
def asking_its_own_server():
    with server() as p:
        for host in ("127.0.0.1", "localhost"):
            code, out, err = ask("%s:%d" % (host, p.port()), "hello")
            check_equal((0, b"hello"), (code, out.strip()), "answer (%s)" % err)


def scripted(answers):
    """A server that gives the n-th question the n-th list of answers (None: the question)."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    s.settimeout(0.2)

    def body():
        times = []
        quiet = time.monotonic() + 10
        with s:
            while time.monotonic() < quiet and len(times) < len(answers):
                try:
                    data, peer = s.recvfrom(1 << 16)
                except socket.timeout:
                    continue
                for a in answers[len(times)]:
                    s.sendto(data if a is None else a, peer)
                times.append(time.monotonic())
                quiet = times[-1] + 2.5  # a next one would come before
        return times
    return s.getsockname()[1], in_thread(body)


@fact
def asking_again_when_datagrams_get_lost():
    port, join = scripted([[], [], [None]])
    start = time.monotonic()
    code, out, err = ask("127.0.0.1:%d" % port, "hello")
    check_equal((0, b"hello"), (code, out.strip()), "answer (%s)" % err)
    times = join()
    check_equal(3, len(times), "questions")
    check(times[1] - start >= 0.25 and times[2] - start >= 0.75, "pauses: %r" % times)


@fact
def strange_answers_do_not_count():
    port, join = scripted([[b"", b"hell", b"helloo", b"HELLO", None]])
    code, out, err = ask("127.0.0.1:%d" % port, "hello")
    check_equal((0, b"hello"), (code, out.strip()), "answer (%s)" % err)
    join()


@fact
def no_answer_is_said_after_four_tries():
    port, join = scripted([[], [], [], [], []])
    start = time.monotonic()
    code, out, err = ask("127.0.0.1:%d" % port, "hello")
    check_equal((1, b""), (code, out), "result")
    check("timed out" in err, repr(err))
    check(time.monotonic() - start >= 3.7, "gave up after %.1f s" % (time.monotonic() - start))
    check_equal(4, len(join()), "questions")


@fact
def unknown_names_are_said():
    code, _, err = ask("no-such-host.invalid:7", "hello")
    check_equal(1, code, "exit code")
    check("no-such-host.invalid:7: " in err, repr(err))


@fact
def usage_is_exit_code_2():
    for words in (["--ask", "127.0.0.1:7"], ["a", "b", "c", "d"]):
        code, _, err = run([PROGRAM] + words)
        check_equal(2, code, "exit code")
        check("usage" in err, repr(err))


def check_client(command):
    with server() as p:
        port = str(p.port())
        with Run([w.replace("PORT", port) for w in command], emulate=False) as c:
            c.feed(b"hello\n")
            c.expect(b"^hello\n$")


@fact
def socat_as_the_client():
    check_client([tool("socat"), "-", "UDP4:127.0.0.1:PORT"])


@fact
def ncat_as_the_client():
    check_client([tool("ncat"), "-u", "127.0.0.1", "PORT"])


@fact
def netcat_as_the_client():
    check_client([openbsd_nc(), "-u", "127.0.0.1", "PORT"])


main("udp_echo")
