#!/usr/bin/env python3
"""Drives examples/workers.c: each of its loops serves, however the clients come to them."""
import os
import re
import signal
import socket
import time

from common import (EMULATOR, LINUX, WINE, Run, Skip, check, check_equal, check_idle, fact, main,
                    payload, program, receive_all)

PROGRAM = program("workers")
LOOPS = 4


def server(*options):
    return Run([PROGRAM] + list(options) + ["127.0.0.1:0"])


def connect(port):
    return socket.create_connection(("127.0.0.1", port))


def ended(p):
    """What each loop says that it did: (connections, bytes in, bytes out)."""
    if WINE:
        raise Skip("no signals under Wine")
    check_equal(0, p.stop(signal.SIGINT), "exit code (%r)" % bytes(p.err))
    check_equal(b"", bytes(p.err), "error output")
    got = re.findall(rb"loop (\d): (\d+) connections, (\d+) bytes in, (\d+) bytes out", bytes(p.out))
    check_equal(list(range(LOOPS)), [int(g[0]) for g in got], "loops in %r" % bytes(p.out))
    return [tuple(int(n) for n in g[1:]) for g in got]


def serve(p, clients, data):
    port = p.port()
    sockets = []
    try:
        for _ in range(clients):
            sockets.append(connect(port))
        for s in sockets:
            s.sendall(data)
        for s in sockets:
            check_equal(data, receive_all(s, len(data)), "echo")
    finally:
        for s in sockets:
            s.close()


def check_sums(done, clients, data):
    check_equal(clients, sum(d[0] for d in done), "connections in %r" % done)
    check_equal(clients * len(data), sum(d[1] for d in done), "bytes in of %r" % done)
    check_equal(clients * len(data), sum(d[2] for d in done), "bytes out of %r" % done)


@fact
def every_loop_serves_on_a_shared_port():
    data = payload(500)
    with server() as p:
        serve(p, 400, data)
        if LINUX and not EMULATOR:
            p.expect(rb"each for itself")
        done = ended(p)
        check_sums(done, 400, data)
        check(all(d[0] > 0 for d in done), "connections %r" % done)


@fact
def every_loop_serves_by_hand_over():
    data = payload(500)
    with server("--hand-over") as p:
        serve(p, 400, data)
        p.expect(rb"one accepts for all")
        done = ended(p)
        check_sums(done, 400, data)
        check_equal([100] * LOOPS, [d[0] for d in done], "connections, in turn")


def two_ways(function):
    for options in (), ("--hand-over",):
        function(*options)


@fact
def one_thread_for_each_loop():
    if not LINUX or EMULATOR:
        raise Skip("threads are counted in Linux's /proc")

    def count(*options):
        with server(*options) as p:
            serve(p, 100, b"hello")
            # The main thread waits for the others.
            check_equal(1 + LOOPS, len(os.listdir("/proc/%d/task" % p.pid)), "threads")
    two_ways(count)


@fact
def clients_that_stay_are_closed_by_the_stop():
    def stay(*options):
        with server(*options) as p:
            port = p.port()
            sockets = [connect(port) for _ in range(20)]
            for s in sockets:
                s.sendall(b"hello")
                check_equal(b"hello", receive_all(s, 5), "echo")
            start = time.monotonic()
            done = ended(p)
            check(time.monotonic() - start < 5, "took %.1f s" % (time.monotonic() - start))
            check_equal(20, sum(d[0] for d in done), "connections")
            for s in sockets:
                try:
                    check_equal(b"", s.recv(10), "end")
                except ConnectionError:
                    pass  # it did not answer the server's end in time
                s.close()
    two_ways(stay)


@fact
def stops_without_a_client():
    def alone(*options):
        with server(*options) as p:
            p.port()
            time.sleep(0.1)  # nothing must happen here
            check(p.process.poll() is None, "ended by itself")
            check_equal([(0, 0, 0)] * LOOPS, ended(p), "counters")
    two_ways(alone)


@fact
def idle_costs_nothing():
    def idle(*options):
        with server(*options) as p:
            serve(p, 20, b"hello")
            check_idle(p.pid)
    two_ways(idle)


@fact
def a_used_port_is_said():
    def used(*options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            address = "127.0.0.1:%d" % s.getsockname()[1]
            with Run([PROGRAM] + list(options) + [address]) as p:
                check_equal(1, p.wait(), "exit code")
                check(b"address in use" in p.err and address.encode() in p.err, repr(bytes(p.err)))
    two_ways(used)


main("workers")
