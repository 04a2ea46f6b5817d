#!/usr/bin/env python3
"""Drives examples/tcp_echo_server.c: what is more than in echo_server.py, and examples/apps/load.c
on a server that many keep busy with doing nothing."""
import os
import re
import time

import echo_server
from common import (EMULATOR, LINUX, Skip, WINE, check, check_equal, fact, memory_kib, native,
                    payload, program, receive_all, run)
from echo_server import check_echo, connect, more_descriptors, server


def report(p):
    """The next report: uptime, clients, KB/s in and out, accepted, refused, timed out, reset."""
    seen = len(bytes(p.out))
    number = rb"([\d.]+)"
    pattern = (rb"up %s s, %s clients, in %s KB/s, out %s KB/s; %s accepted, %s refused, "
               rb"%s timed out, %s reset" % ((number,) * 8))
    match = p.expect(rb".{%d}.*?" % seen + pattern)
    return [float(g) for g in match.groups()]


@native
def reports_match_what_passed():
    with server("127.0.0.1:0", "--report", "1") as p:
        port = p.port()
        check_equal([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], report(p)[1:], "the first report")
        data = payload(1000000)
        with connect(port) as one, connect(port) as two:
            check_echo(one, data)
            check_echo(two, data)
            moved = 0
            for _ in range(5):
                up, clients, into, out, accepted = report(p)[:5]
                moved += out
                if moved > 1900:
                    break
            check_equal((2, 2), (clients, accepted), "clients")
            check(1900 < moved < 2200 and abs(into - out) < 100, "KB/s: in %r, out %r" % (into, out))


@fact
def the_client_above_the_limit_is_told_and_closed():
    with server("127.0.0.1:0", "--max", "2") as p:
        port = p.port()
        with connect(port) as one:
            with connect(port) as two:
                check_echo(one, b"one")
                check_echo(two, b"two")
                with connect(port) as three:
                    check_equal(b"server full\r\n", receive_all(three), "refusal")
                check_echo(two, b"still here")
            for _ in range(100):  # until its end has been seen
                with connect(port) as four:
                    four.sendall(b"four")
                    if four.recv(4) == b"four":
                        break
                time.sleep(0.02)
            else:
                raise AssertionError("nobody is let in after one has left")
            check_echo(one, b"one again")


@fact
def silent_clients_are_cut_and_active_ones_stay():
    with server("127.0.0.1:0", "--idle", "1") as p:
        port = p.port()
        with connect(port) as silent, connect(port) as active:
            start = time.monotonic()
            check_echo(silent, b"hello")
            silent.setblocking(False)
            gone = None
            while time.monotonic() - start < 3:
                check_echo(active, b"tick")
                time.sleep(0.1)
                try:
                    if not gone and silent.recv(1) == b"":
                        gone = time.monotonic() - start
                except BlockingIOError:
                    pass
                except ConnectionError:
                    gone = time.monotonic() - start
            check(gone and 0.99 < gone < 2.5, "cut after %r s" % gone)


@native
def one_thread_serves_a_thousand():
    if not LINUX or EMULATOR:
        raise Skip("threads are counted in Linux's /proc")
    more_descriptors(1100)
    with server() as p:
        port = p.port()
        clients = [connect(port) for _ in range(1000)]
        try:
            for s in clients:
                s.sendall(b"x")
            for s in clients:
                check_equal(b"x", receive_all(s, 1), "echo")
            check_equal(1, len(os.listdir("/proc/%d/task" % p.pid)), "threads")
        finally:
            for s in clients:
                s.close()


@native
def ten_thousand_idle_ones_do_not_slow_down_a_hundred():
    if not LINUX or EMULATOR:
        raise Skip("memory of a process is read from Linux's /proc")
    load = program("load")
    more_descriptors(10300)
    with server() as p:
        port = p.port()
        with connect(port) as s:
            check_echo(s, payload(100000))
        before = memory_kib(p.pid)
        idle = []
        try:
            for _ in range(10000):
                idle.append(connect(port))
            code, out, err = run([load, "--connections", "100", "--seconds", "1",
                                  "127.0.0.1:%d" % port])
            check_equal(0, code, "exit code of load (%s)" % err)
            p99 = float(re.search(rb"p99 ([\d.]+)", out).group(1))
            each = (memory_kib(p.pid) - before) * 1024 / len(idle)
            print("    %.0f bytes for an idle connection, p99 of the active ones %.1f ms" %
                  (each, p99 / 1000))
            check(p99 < 50000, "p99 %.1f ms" % (p99 / 1000))
            check(each < 1000, "%.0f bytes for an idle connection" % each)
            check_echo(idle[0], b"first")
            check_echo(idle[-1], b"last")
        finally:
            for s in idle:
                s.close()


@native
def a_second_signal_ends_it_at_once():
    if WINE:
        raise Skip("no signals under Wine")
    with server() as p, connect(p.port()) as s:
        echo_server.fill(s, 64 << 20)
        p.process.terminate()
        time.sleep(0.1)
        start = time.monotonic()
        p.process.terminate()
        check_equal(0, p.wait(), "exit code")
        check(time.monotonic() - start < 0.7, "took %.1f s" % (time.monotonic() - start))


echo_server.drive("tcp_echo_server")
