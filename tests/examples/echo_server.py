"""Facts that hold for every TCP echo server among the examples, however it is made: driven with
Python's sockets, and with socat, ncat and nc if there. Its driver calls drive(NAME)."""
import hashlib
import os
import select
import signal
import socket
import struct
import time

try:
    import resource
except ImportError:  # Windows
    resource = None

from common import (EMULATOR, LINUX, Run, Skip, WINE, check, check_equal, check_idle, cpu_seconds,
                    fact, in_thread, main, memory_kib, native, need_ipv6, openbsd_nc, payload,
                    program, receive_all, run, tool)

PROGRAM = None  # set by drive()
BACKENDS = ("select", "poll", "epoll", "kqueue", "wsapoll")


def server(*arguments, **more):
    return Run([PROGRAM] + list(arguments or ["127.0.0.1:0"]), **more)


def connect(port, host="127.0.0.1"):
    return socket.create_connection((host, port))


def check_echo(s, data):
    s.sendall(data)
    check_equal(data, receive_all(s, len(data)), "echo")


def more_descriptors(count):
    """Room for `count` descriptors here and in the programs that are started from here."""
    if not resource:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Skip("needs %d descriptors, the limit is %d" % (count, hard))
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@fact
def same_bytes_come_back():
    with server() as p, connect(p.port()) as s:
        check_echo(s, b"Hello, Server!")
        check_echo(s, bytes(range(256)) * 3)


@native
def port_option_listens_on_both_families():
    with server("--port", "0") as p:
        port = p.port()
        with connect(port) as s:
            check_echo(s, b"over IPv4")
        need_ipv6()
        with connect(port, "::1") as s:
            check_echo(s, b"over IPv6")


@fact
def every_backend_serves():
    available = []
    for name in BACKENDS:
        with server("127.0.0.1:0", "--backend", name) as p:
            try:
                port = p.port()
            except AssertionError:
                check_equal(1, p.wait(), "exit code without backend " + name)
                check(p.err, "no reason given")
                continue
            available.append(name)
            with connect(port) as one, connect(port) as two:
                check_echo(two, payload(100000))
                check_echo(one, b"first")
    check(len(available) >= 2, "only %r" % available)
    if LINUX and not EMULATOR and "tcc" not in os.environ.get("CC", ""):  # tcc's epoll is broken
        check_equal(["select", "poll", "epoll"], available, "backends")


@native
def unknown_backend_is_refused():
    code, _, err = run([PROGRAM, "127.0.0.1:0", "--backend", "telepathy"])
    check_equal(1, code, "exit code")
    check(err, "no reason given")


@fact
def echo_continues_after_the_client_half_closes():
    data = payload(1 << 20)
    with server() as p, connect(p.port()) as s:
        got = in_thread(receive_all, s)
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        check_equal(hashlib.sha256(data).digest(), hashlib.sha256(got()).digest(), "sha256")


def serve_a_thousand(count, *arguments):
    more_descriptors(2 * count + 100)
    with server("127.0.0.1:0", *arguments) as p:
        port = p.port()
        clients = []
        try:
            for _ in range(count):
                clients.append(connect(port))
            for i, s in enumerate(clients):
                s.sendall(b"client %06d" % i)
            for i, s in enumerate(clients):
                check_equal(b"client %06d" % i, receive_all(s, 13), "echo")
            for i, s in enumerate(reversed(clients)):  # and all are still there
                check_echo(s, b"again %d" % i)
        finally:
            for s in clients:
                s.close()


@fact
def a_thousand_clients_at_once():
    serve_a_thousand(100 if WINE else 1000)


@native
def a_thousand_clients_on_select():
    serve_a_thousand(100 if WINE else 1000, "--backend", "select")


def fill(s, limit):
    """Send without receiving until nothing is taken for 0.3 s. Returns a hash and a count."""
    sent = 0
    digest = hashlib.sha256()
    block = payload(1 << 16)
    s.setblocking(False)
    while sent < limit and select.select([], [s], [], 0.3)[1]:
        try:
            n = s.send(block)
        except BlockingIOError:
            continue
        digest.update(block[:n])
        sent += n
    s.setblocking(True)
    s.settimeout(30)
    return sent, digest.digest()


@fact
def slow_readers_do_not_cost_memory():
    limit = 256 << 20
    with server() as p:
        port = p.port()
        with connect(port) as s:
            check_echo(s, payload(100000))
        before = memory_kib(p.pid)
        slow = [connect(port) for _ in range(4)]
        try:
            sent = [fill(s, limit) for s in slow]
            check(all(n < limit for n, _ in sent), "the server takes without end: %r" % sent)
            with connect(port) as s:
                check_echo(s, b"others are served meanwhile")
            grown = memory_kib(p.pid) - before
            check(grown < 4096, "grew by %d KiB for %d bytes" % (grown, sum(n for n, _ in sent)))
            for s, (n, digest) in zip(slow, sent):
                got = receive_all(s, n)
                check_equal((n, digest), (len(got), hashlib.sha256(got).digest()), "echo")
                check_echo(s, b"and this one goes on")
        finally:
            for s in slow:
                s.close()


@native
def slow_reader_is_no_load():
    with server() as p, connect(p.port()) as s:
        fill(s, 256 << 20)
        check_idle(p.pid, 0.5)


def collect_served(waiting, count, seconds=10):
    """Take sockets out of `waiting` whose echo came: `count`, or as many as come in time."""
    served = []
    end = time.monotonic() + seconds
    while len(served) < count and time.monotonic() < end:
        for s in select.select(waiting, [], [], 0.1)[0]:
            receive_all(s, 4)
            waiting.remove(s)
            served.append(s)
    return served


@native
def without_descriptors_it_pauses_and_recovers():
    if not resource or EMULATOR:
        raise Skip("limits of descriptors are set by POSIX calls")
    more_descriptors(1024)

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    with server(preexec_fn=limit) as p:
        port = p.port()
        clients = [connect(port) for _ in range(64)]  # the kernel accepts what the server cannot
        try:
            for s in clients:
                s.sendall(b"ping")
            waiting = list(clients)
            first = collect_served(waiting, 16)
            check(len(first) >= 16, "served %d with 32 descriptors" % len(first))
            first += collect_served(waiting, 16, 1)
            check(len(first) < 32, "served %d with 32 descriptors" % len(first))

            used = cpu_seconds(p.pid)[0]
            time.sleep(1)  # the pause is what is measured
            used = cpu_seconds(p.pid)[0] - used
            check(used < 0.05, "spins while it pauses: %.0f ms in 1 s" % (1000 * used))

            for s in first:
                s.close()
            second = collect_served(waiting, len(first))
            check_equal(len(first), len(second), "served after as many had closed")
        finally:
            for s in clients:
                s.close()
        with connect(port) as s:
            check_echo(s, b"all are gone")


@fact
def a_reset_client_hurts_nobody():
    with server() as p:
        port = p.port()
        with connect(port) as other:
            for _ in range(50):
                s = connect(port)
                s.sendall(b"x" * 50000)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()  # a reset, with an echo under way
                check_echo(other, b"still here")
        check(p.process.poll() is None, "it ended: %r" % bytes(p.err))


@native
def signals_end_it_cleanly():
    if WINE:
        raise Skip("no signals under Wine")
    for number in (signal.SIGTERM, signal.SIGINT):
        with server() as p, connect(p.port()) as s:
            check_echo(s, b"hello")
            check_equal(0, p.stop(number), "exit code")
            check_equal(b"", bytes(p.err), "stderr")


@fact
def a_restart_gets_the_port_back_at_once():
    if WINE:
        raise Skip("no signals under Wine")
    with server() as p:
        port = p.port()
        with connect(port) as s:
            check_echo(s, b"hello")
            p.stop()  # the server closes first, so the port waits in TIME_WAIT
    with server("127.0.0.1:%d" % port) as p, connect(p.port()) as s:
        check_echo(s, b"hello again")


@fact
def a_used_port_is_said():
    with server() as p:
        code, _, err = run([PROGRAM, "127.0.0.1:%d" % p.port()])
        check_equal(1, code, "exit code")
        check("address in use" in err and "127.0.0.1:%d" % p.port() in err, repr(err))


@native
def a_bad_address_is_said():
    code, _, err = run([PROGRAM, "127.0.0.1:99999"])
    check_equal(1, code, "exit code")
    check("127.0.0.1:99999: " in err, repr(err))


@native
def idle_costs_nothing():
    with server() as p, connect(p.port()) as s:
        check_echo(s, b"hello")
        check_idle(p.pid)


def check_client(command):
    data = payload(1 << 20)
    code, out, err = run(command, data, emulate=False)
    check_equal(0, code, "exit code of %s (%s)" % (command[0], err))
    check_equal(hashlib.sha256(data).digest(), hashlib.sha256(out).digest(), "echo to %s" % command)


@native
def socat_as_the_client():
    socat = tool("socat")
    with server() as p:
        check_client([socat, "-t10", "-", "TCP4:127.0.0.1:%d" % p.port()])


@native
def ncat_as_the_client():
    ncat = tool("ncat")
    with server() as p:
        check_client([ncat, "127.0.0.1", str(p.port())])


@native
def netcat_as_the_client():
    nc = openbsd_nc()
    with server() as p:
        check_client([nc, "-N", "127.0.0.1", str(p.port())])


def drive(name):
    global PROGRAM
    PROGRAM = program(name)
    main(name)
