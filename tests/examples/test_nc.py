#!/usr/bin/env python3
"""Drives examples/nc.c: Python's sockets as the other end, then socat, ncat and OpenBSD's nc."""
import hashlib
import os
import select
import signal
import socket
import ssl
import stat
import struct
import time

from common import (EMULATOR, LINUX, Run, Skip, WINE, certs, check, check_equal, check_idle, fact,
                    in_thread, main, native, need_ipv6, need_unix, no_tls, openbsd_nc, path,
                    payload, program, receive_all, run, tool)

PROGRAM = program("nc")
SIZE = (1 << 20) if WINE else (10 << 20)
UP, DOWN = payload(SIZE, 1), payload(SIZE, 2)


def nc(*arguments, **more):
    return Run([PROGRAM] + [str(a) for a in arguments], **more)


def tcp(family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    s.listen(5)
    s.settimeout(30)
    return s, s.getsockname()[1]


def udp(family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    s.settimeout(30)
    return s, s.getsockname()[1]


def unix(name, kind=socket.SOCK_STREAM):
    need_unix()
    s = socket.socket(socket.AF_UNIX, kind)
    s.bind(path(name))
    if kind == socket.SOCK_STREAM:
        s.listen(5)
    s.settimeout(30)
    return s


def accept(listener):
    s = listener.accept()[0]
    s.settimeout(30)
    return s


def same(want, got, what):
    check_equal((len(want), hashlib.sha256(want).hexdigest()),
                (len(got), hashlib.sha256(got).hexdigest()), what)


def both_ways(p, s):
    """10 MiB in each direction at once, then the end each way, exit code 0."""
    send = in_thread(lambda: (s.sendall(DOWN), s.shutdown(socket.SHUT_WR)))
    p.feed_and_end(UP)
    got = receive_all(s)
    send()
    code = p.wait()
    same(UP, got, "from nc")
    same(DOWN, bytes(p.out), "to nc")
    check_equal((0, b""), (code, bytes(p.err)), "exit code, stderr")


# --- streams -------------------------------------------------------------------------------------

@fact
def dials_tcp_both_ways_at_once():
    listener, port = tcp()
    with listener, nc("-N", "127.0.0.1", port) as p, accept(listener) as s:
        both_ways(p, s)


@fact
def dials_tcp_over_ipv6():
    need_ipv6()
    listener, port = tcp(socket.AF_INET6)
    with listener, nc("-N", "::1", port) as p, accept(listener) as s:
        both_ways(p, s)
    listener, port = tcp(socket.AF_INET6)
    with listener, nc("-N", "[::1]:%d" % port) as p, accept(listener) as s:
        p.end_input()
        s.close()
        check_equal(0, p.wait(), "exit code with brackets")


@native
def dials_unix():
    with unix("dial") as listener, nc("-N", "-U", path("dial")) as p, accept(listener) as s:
        both_ways(p, s)


@fact
def listens_on_tcp_both_ways_at_once():
    with nc("-lN", "127.0.0.1", 0) as p:
        with socket.create_connection(("127.0.0.1", p.port(p.err))) as s:
            del p.err[:]
            both_ways(p, s)


@fact
def listens_on_both_families():
    need_ipv6()
    for host in ("127.0.0.1", "::1"):
        with nc("-lN", 0) as p:
            with socket.create_connection((host, p.port(p.err))) as s:
                s.sendall(b"hello")
                p.expect(b"^hello$")
                p.end_input()
                check_equal(b"", s.recv(10), "end")
            check_equal(0, p.wait(), "exit code")


@native
def listens_on_unix_and_removes_the_file():
    need_unix()
    with nc("-lNvU", path("listen")) as p:
        p.expect(b"listening on", p.err)
        check(stat.S_ISSOCK(os.stat(path("listen")).st_mode), "no socket file")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.connect(path("listen"))
            p.expect(b"client", p.err)
            del p.err[:]
            both_ways(p, s)
    check(not os.path.exists(path("listen")), "the socket file is still there")


@fact
def files_as_input_and_output():
    with open(path("input"), "wb") as f:
        f.write(UP)
    listener, port = tcp()
    with open(path("input"), "rb") as source, open(path("output"), "wb") as sink, listener:
        with nc("-N", "127.0.0.1", port, stdin=source, stdout=sink) as p, accept(listener) as s:
            send = in_thread(lambda: (s.sendall(DOWN), s.shutdown(socket.SHUT_WR)))
            same(UP, receive_all(s), "from a file")
            send()
            check_equal(0, p.wait(), "exit code")
    with open(path("output"), "rb") as f:
        same(DOWN, f.read(), "to a file")


@fact
def empty_input_and_the_null_device():
    listener, port = tcp()
    with open(os.devnull, "rb") as source, open(os.devnull, "wb") as sink, listener:
        with nc("-N", "127.0.0.1", port, stdin=source, stdout=sink) as p, accept(listener) as s:
            check_equal(b"", receive_all(s), "end")
            s.sendall(b"x" * 100000)
            s.close()
            check_equal(0, p.wait(), "exit code")


@native
def every_byte_value_passes():
    data = bytes(range(256)) + b"\r\n\x1a\x00\x04\n" * 3
    listener, port = tcp()
    with listener, nc("-N", "127.0.0.1", port) as p, accept(listener) as s:
        p.feed_and_end(data)
        check_equal(data, receive_all(s), "from nc")
        s.sendall(data)
        s.close()
        check_equal(0, p.wait(), "exit code")
        check_equal(data, bytes(p.out), "to nc")


# --- half-close, ends, sides that stop -----------------------------------------------------------

@fact
def half_close_then_the_peer_answers():
    answer = payload(1 << 20)
    listener, port = tcp()
    with listener, nc("-N", "127.0.0.1", port) as p, accept(listener) as s:
        p.feed_and_end(b"the question")
        check_equal(b"the question", receive_all(s), "until the end")
        s.sendall(answer)
        s.close()
        check_equal(0, p.wait(), "exit code")
        same(answer, bytes(p.out), "the answer")


@fact
def the_peer_half_closes_and_nc_goes_on():
    listener, port = tcp()
    with listener, nc("-N", "127.0.0.1", port) as p, accept(listener) as s:
        s.sendall(b"that is all")
        s.shutdown(socket.SHUT_WR)
        p.expect(b"^that is all$")
        if not WINE:  # where the end shows here only when the process has ended
            p.threads[-1].join(10)  # reads nc's output
            check(not p.threads[-1].is_alive(), "nc keeps its output open after the peer's end")
        p.feed_and_end(UP)
        same(UP, receive_all(s), "after the peer's end")
        check_equal(0, p.wait(), "exit code")


@native
def without_n_the_end_of_input_is_kept_to_itself():
    listener, port = tcp()
    with listener, nc("127.0.0.1", port) as p, accept(listener) as s:
        p.feed_and_end(b"question")
        check_equal(b"question", receive_all(s, 8), "input")
        check(not select.select([s], [], [], 0.3)[0], "the peer sees an end")
        s.sendall(b"answer")
        s.close()
        check_equal((0, b"answer"), (p.wait(), bytes(p.out)), "exit code, output")


@native
def one_side_stops_and_the_other_goes_on():
    listener, port = tcp()
    read_end, write_end = os.pipe()
    with listener, os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb") as writer:
        with nc("-N", "127.0.0.1", port, stdout=writer) as p, accept(listener) as s:
            writer.close()
            # Nobody reads nc's output: it fills up, with 10 MiB on the way.
            send = in_thread(lambda: (s.sendall(DOWN), s.shutdown(socket.SHUT_WR)))
            p.feed_and_end(UP)
            same(UP, receive_all(s), "while the output is stuck")
            same(DOWN, reader.read(), "the output at last")
            send()
            check_equal(0, p.wait(), "exit code")


@native
def unsynchronised_streams_pass_each_other():
    listener, port = tcp()
    with listener, nc("-N", "127.0.0.1", port) as p, accept(listener) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        want_up, want_down = b"", b""
        for i in range(30):  # each at its own pace: 2 and 3 of them in the same time
            if i % 2 == 0:
                want_up += b"up %d\n" % i
                p.feed(b"up %d\n" % i)
            if i % 3 == 0:
                want_down += b"down %d\n" % i
                s.sendall(b"down %d\n" % i)
            time.sleep(0.01)  # the pace
        check_equal(want_up, receive_all(s, len(want_up)), "from nc")
        p.expect(b"down 27\n$")
        check_equal(want_down, bytes(p.out), "to nc")
        p.end_input()
        s.close()
        check_equal(0, p.wait(), "exit code")


@fact
def a_reset_is_a_failure():
    listener, port = tcp()
    with listener, nc("127.0.0.1", port) as p, accept(listener) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        if WINE:  # shows a reset as an end
            p.end_input()
            p.wait()
            return
        check_equal(1, p.wait(), "exit code")
        check(b"connection reset" in p.err and b":%d: " % port in p.err, bytes(p.err))


@native
def at_a_terminal_the_peers_end_is_enough():
    if EMULATOR or not hasattr(os, "openpty"):
        raise Skip("no pseudo-terminals")
    ours, theirs = os.openpty()
    listener, port = tcp()
    with listener, nc("127.0.0.1", port, stdin=theirs) as p, accept(listener) as s:
        os.close(theirs)
        os.write(ours, b"typed\n")
        check_equal(b"typed\n", receive_all(s, 6), "line")
        s.close()
        check_equal(0, p.wait(), "exit code")
    os.close(ours)


# --- refusals, limits, addresses -----------------------------------------------------------------

def closed_port():
    s, port = tcp()
    s.close()
    return port


@fact
def a_refused_connection_is_said():
    port = closed_port()
    code, out, err = run([PROGRAM, "127.0.0.1", str(port)])
    check_equal((1, b""), (code, out), "exit code, output")
    check("127.0.0.1:%d: connection refused" % port in err, repr(err))


@native
def every_attempt_is_told():
    need_ipv6()
    if not LINUX or EMULATOR or os.geteuid() != 0:
        raise Skip("only root may give a name two addresses, in a mount namespace of Linux")
    port = closed_port()
    with open(path("hosts"), "w") as f:
        f.write("127.0.0.1 two.test\n::1 two.test\n")
    script = "mount --bind $0 /etc/hosts && exec \"$@\""
    code, _, err = run([tool("unshare"), "-m", "sh", "-c", script, path("hosts"), PROGRAM,
                        "two.test", str(port)])
    if "unshare:" in err or "mount:" in err:
        raise Skip("no mount namespace: %s" % err.strip())
    check_equal(1, code, "exit code")
    check("two.test:%d: connection refused" % port in err, repr(err))
    for address in ("127.0.0.1:%d" % port, "[::1]:%d" % port):
        check("tried %s: connection refused\n" % address in err, repr(err))


@fact
def unknown_names_are_said():
    code, _, err = run([PROGRAM, "no-such-host.invalid", "7"])
    check_equal(1, code, "exit code")
    check("no-such-host.invalid:7: " in err, repr(err))


@native
def a_missing_socket_file_is_said():
    need_unix()
    code, _, err = run([PROGRAM, "-U", path("missing")])
    check_equal(1, code, "exit code")
    check("unix:%s: " % path("missing") in err, repr(err))


@fact
def an_address_in_use_is_said():
    listener, port = tcp()
    with listener:
        code, _, err = run([PROGRAM, "-l", "127.0.0.1", str(port)])
        check_equal(1, code, "exit code")
        check("127.0.0.1:%d: address in use" % port in err, repr(err))


@native
def bad_command_lines_are_exit_code_2():
    for words in ([], ["-l"], ["-x", "h", "1"], ["a", "b", "c"], ["-w"], ["-w", "soon", "h", "1"],
                  ["-w", "-1", "h", "1"], ["-k", "h", "1"], ["-U", "a", "b"], ["-cu", "h", "1"],
                  ["-lc", "1"], ["-C", "file", "h", "1"]):
        code, _, err = run([PROGRAM] + words)
        check_equal(2, code, "exit code of %r" % words)
        check("usage" in err, repr(err))


@fact
def time_limit_on_connecting():
    if not LINUX or EMULATOR:
        raise Skip("only Linux drops who does not fit into a full queue")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        queue = [socket.socket() for _ in range(8)]
        try:
            for s in queue:
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", port))
            start = time.monotonic()
            code, _, err = run([PROGRAM, "-w", "0.5", "127.0.0.1", str(port)])
            took = time.monotonic() - start
        finally:
            for s in queue:
                s.close()
    check_equal(1, code, "exit code")
    check("127.0.0.1:%d: timed out" % port in err or "timed out" in err, repr(err))
    check(0.5 <= took < 5, "took %.2f s" % took)


@native
def time_limit_on_silence():
    listener, port = tcp()
    with listener, nc("-w", 1.2, "127.0.0.1", port) as p, accept(listener) as s:
        for _ in range(3):  # less than the limit each, more together
            time.sleep(0.5)
            start = time.monotonic()
            s.sendall(b".")
        code = p.wait()
        took = time.monotonic() - start
        check_equal((1, b"..."), (code, bytes(p.out)), "exit code, output")
        check(b"timed out" in p.err, bytes(p.err))
        check(1.2 <= took < 6, "took %.2f s" % took)


@native
def time_limit_on_waiting_for_a_client():
    start = time.monotonic()
    code, _, err = run([PROGRAM, "-l", "-w", "0.3", "127.0.0.1", "0"])
    check_equal(1, code, "exit code")
    check("timed out" in err, repr(err))
    check(time.monotonic() - start >= 0.3, "took %.2f s" % (time.monotonic() - start))


@native
def source_address_and_port():
    if not LINUX:
        raise Skip("only Linux has all of 127.0.0.0/8")
    spare = closed_port()
    listener, port = tcp()
    with listener:
        for words, want in ((["-s", "127.0.0.2"], "127.0.0.2"), (["-p", spare], "127.0.0.1"),
                            (["-s", "127.0.0.3", "-p", spare], "127.0.0.3")):
            with nc(*words, "127.0.0.1", port) as p:
                s, peer = listener.accept()
                with s:
                    # A reset, so that the next one may have the port at once.
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    check_equal(want, peer[0], "source of %r" % words)
                    if "-p" in words:
                        check_equal(spare, peer[1], "port of %r" % words)
                p.process.kill()


@native
def a_source_that_is_not_ours_is_said():
    listener, port = tcp()
    with listener:
        code, _, err = run([PROGRAM, "-s", "192.0.2.1", "127.0.0.1", str(port)])
        check_equal(1, code, "exit code")
        check("address not available" in err, repr(err))


@native
def one_family_only():
    need_ipv6()
    listener, port = tcp()
    with listener:
        code, _, err = run([PROGRAM, "-6", "127.0.0.1", str(port)])
        check_equal(1, code, "exit code of -6 to an IPv4 address")
        check(err.startswith("nc: 127.0.0.1:%d: " % port), repr(err))
        with nc("-4N", "localhost", port) as p, accept(listener) as s:
            p.end_input()
            s.close()
            check_equal(0, p.wait(), "exit code of -4")
    with nc("-l4", 0) as p:
        check(p.address(p.err).startswith("0.0.0.0:"), bytes(p.err))


@fact
def keeps_listening():
    with nc("-lk", "127.0.0.1", 0) as p:
        port = p.port(p.err)
        for word in (b"one", b"two", b"three"):
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(word)
                p.expect(word + b"$")
                p.feed(b"to " + word)
                check_equal(b"to " + word, receive_all(s, 3 + len(word)), "answer")
        check_equal(b"onetwothree", bytes(p.out), "output")
        if not WINE:
            check_equal(0, p.stop(), "exit code")


@native
def keeps_listening_after_a_reset():
    with nc("-lk", "127.0.0.1", 0) as p:
        port = p.port(p.err)
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"one")
            p.expect(b"one$")
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"two")
            p.expect(b"onetwo$")


@native
def takes_one_client_only():
    with nc("-l", "127.0.0.1", 0) as p:
        port = p.port(p.err)
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"one")
            p.expect(b"one$")
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                return
            raise AssertionError("a second client got in")


@native
def signals_end_a_listener_cleanly():
    need_unix()
    for number in (signal.SIGTERM, signal.SIGINT):
        with nc("-lkvU", path("signals")) as p:
            p.expect(b"listening on", p.err)
            check_equal(0, p.stop(number), "exit code")
        check(not os.path.exists(path("signals")), "the socket file is still there")


@native
def an_interrupted_transfer_is_a_failure():
    if WINE:
        raise Skip("no signals under Wine")
    with nc("-l", "127.0.0.1", 0) as p:
        with socket.create_connection(("127.0.0.1", p.port(p.err))) as s:
            s.sendall(b"half")
            p.expect(b"half$")
            check_equal(1, p.stop(), "exit code")


@native
def idle_costs_nothing():
    listener, port = tcp()
    with listener, nc("127.0.0.1", port) as p, accept(listener) as s:
        s.sendall(b"hello")
        p.expect(b"hello$")
        check_idle(p.pid)


@native
def stuck_output_costs_nothing():
    listener, port = tcp()
    read_end, write_end = os.pipe()
    with listener, nc("127.0.0.1", port, stdout=write_end) as p, accept(listener) as s:
        os.close(write_end)
        s.setblocking(False)
        while select.select([], [s], [], 0.3)[1]:
            try:
                s.send(b"x" * 65536)
            except BlockingIOError:
                pass
        check_idle(p.pid, 0.5)
        os.close(read_end)


# --- datagrams -----------------------------------------------------------------------------------

@fact
def dials_udp():
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        if family == socket.AF_INET6:
            need_ipv6()
        s, port = udp(family)
        with s, nc("-u", host, port) as p:
            for word in (b"one", b"two\n", b"x" * 1400):
                p.feed(word)
                data, peer = s.recvfrom(1 << 16)
                check_equal(word, data, "datagram")
                s.sendto(b"<" + word + b">", peer)
                p.expect(b"<" + word + b">$")


@fact
def listens_for_udp_and_answers_the_first():
    with nc("-lu", "127.0.0.1", 0) as p:
        port = p.port(p.err)
        one, two = udp()[0], udp()[0]
        with one, two:
            one.sendto(b"one", ("127.0.0.1", port))
            p.expect(b"^one$")
            two.sendto(b"two", ("127.0.0.1", port))  # is not the client
            p.feed(b"answer")
            check_equal(b"answer", one.recv(100), "answer")
            one.sendto(b"", ("127.0.0.1", port))  # empty is not the end
            one.sendto(b"three", ("127.0.0.1", port))
            p.expect(b"^onethree$")
        if not WINE:
            check_equal(0, p.stop(), "exit code")


@native
def listens_for_udp_from_all():
    with nc("-luk", "127.0.0.1", 0) as p:
        port = p.port(p.err)
        one, two = udp()[0], udp()[0]
        with one, two:
            one.sendto(b"one", ("127.0.0.1", port))
            p.expect(b"^one$")
            two.sendto(b"two", ("127.0.0.1", port))
            p.expect(b"^onetwo$")
            p.feed(b"answer")
            check_equal(b"answer", two.recv(100), "answer to the last")


@native
def silence_ends_udp():
    s, port = udp()
    with s, nc("-u", "-w", 1.5, "127.0.0.1", port) as p:
        p.feed_and_end(b"question")
        data, peer = s.recvfrom(100)
        s.sendto(b"answer", peer)
        check_equal((0, b"answer"), (p.wait(), bytes(p.out)), "exit code, output")


@native
def with_n_the_end_of_input_ends_udp():
    s, port = udp()
    with s, nc("-uN", "127.0.0.1", port) as p:
        p.feed_and_end(b"news")
        check_equal(b"news", s.recv(100), "datagram")
        check_equal(0, p.wait(), "exit code")


@native
def udp_to_a_closed_port_is_refused():
    if WINE:
        raise Skip("Wine wakes nobody for it")
    s, port = udp()
    s.close()
    with nc("-u", "127.0.0.1", port) as p:
        p.feed(b"anybody?")
        check_equal(1, p.wait(), "exit code")
        check(b"connection refused" in p.err, bytes(p.err))


@native
def unix_datagrams():
    with unix("dgram", socket.SOCK_DGRAM) as s, nc("-uU", path("dgram")) as p:
        p.feed(b"without a name of its own")
        check_equal(b"without a name of its own", s.recv(100), "datagram")
    with unix("dgram2", socket.SOCK_DGRAM) as s:
        with nc("-uUN", "-s", path("dgram3"), path("dgram2")) as p:
            p.feed(b"question")
            data, peer = s.recvfrom(100)
            check_equal((b"question", path("dgram3")), (data, peer), "datagram")
            s.sendto(b"answer", peer)
            p.expect(b"^answer$")
            p.end_input()
            check_equal(0, p.wait(), "exit code")
        check(not os.path.exists(path("dgram3")), "its file is still there")


@native
def listens_for_unix_datagrams():
    need_unix()
    with nc("-lvuU", path("dgram4")) as p:
        p.expect(b"listening on", p.err)
        with unix("dgram5", socket.SOCK_DGRAM) as s:
            s.sendto(b"question", path("dgram4"))
            p.expect(b"^question$")
            p.feed(b"answer")
            check_equal(b"answer", s.recv(100), "answer")
        check_equal(0, p.stop(), "exit code")
    check(not os.path.exists(path("dgram4")), "its file is still there")


# --- TLS -----------------------------------------------------------------------------------------

def tls_context(cert="good.pem", ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs(cert), certs("key.pem"))
    if ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certs(ca))
    return context


def tls_dial(port, *more):
    return nc("-cv", "-R", certs("ca.pem"), *more, "127.0.0.1", port)


def tls_listen(*more):
    return nc("-lc", "-C", certs("good.pem"), "-K", certs("key.pem"), *more, "127.0.0.1", 0)


@fact
def without_a_library_tls_is_refused_with_a_reason():
    if not no_tls():
        raise Skip("the programs were built with a TLS library")
    code, _, err = run([PROGRAM, "-c", "127.0.0.1", "1"])
    check_equal((1, True), (code, "without a TLS library" in err), err)


@native
def tls_both_ways_at_once():
    with tls_listen("-N") as q, tls_dial(q.port(q.err), "-N") as p:
        send = in_thread(lambda: q.feed_and_end(DOWN))
        p.feed_and_end(UP)
        send()
        check_equal((0, 0), (p.wait(), q.wait()), "exit codes; %r %r" % (p.err, q.err))
        same(UP, bytes(q.out), "to the listener")
        same(DOWN, bytes(p.out), "from the listener")
        p.expect(rb"TLSv1\.3 TLS_", p.err)


@native
def tls_of_either_version_with_pythons_ssl():
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = tls_context()
        context.minimum_version = context.maximum_version = version
        listener, port = tcp()
        with listener, tls_dial(port, "-N") as p:
            with context.wrap_socket(accept(listener), server_side=True) as s:
                p.feed(b"question")
                check_equal(b"question", s.recv(100), "from nc")
                s.sendall(b"answer")
                p.expect(b"answer$")
                p.end_input()
                check_equal(b"", s.recv(1), "the end of nc's input")
                s.unwrap()
                check_equal(0, p.wait(), "exit code")


@native
def tls_checks_the_certificate_and_sends_nothing_before():
    for cert, more, want in (("good.pem", ("-e", "other.test"), b"other.test"),
                             ("expired.pem", (), b"expired"),
                             ("untrusted.pem", (), b"not issued by a known|self-signed|unknown")):
        listener, port = tcp()
        with listener, tls_dial(port, *more) as p:
            p.feed_and_end(b"secret")
            raw = accept(listener)
            try:
                with tls_context(cert).wrap_socket(raw, server_side=True) as s:
                    check_equal(b"", s.recv(100), "bytes to a peer that was refused")
            except (ssl.SSLError, ConnectionError):
                pass
            check_equal(1, p.wait(), "exit code with %s" % cert)
            p.expect(want, p.err)


@native
def tls_clients_need_a_certificate_where_a_ca_is_given():
    with tls_listen("-N", "-R", certs("ca.pem")) as q:
        with tls_dial(q.port(q.err), "-N", "-C", certs("client.pem"), "-K", certs("key.pem")) as p:
            p.feed_and_end(b"hello")
            q.expect(b"hello$")
            q.end_input()
            check_equal((0, 0), (p.wait(), q.wait()), "exit codes")
    with tls_listen("-N", "-R", certs("ca.pem")) as q, tls_dial(q.port(q.err)) as p:
        check_equal(1, q.wait(), "exit code of the listener")
        check(b"certificate" in q.err, bytes(q.err))
        check_equal(1, p.wait(), "exit code of the client")


@native
def tls_ends_that_are_cut_off_are_a_failure():
    listener, port = tcp()
    with listener, tls_dial(port) as p:
        with tls_context().wrap_socket(accept(listener), server_side=True) as s:
            s.sendall(b"half")
            p.expect(b"half$")
            s.shutdown(socket.SHUT_RDWR)  # FIN without close_notify
        check_equal(1, p.wait(), "exit code")
        check(b"close_notify" in p.err, bytes(p.err))


@native
def tls_to_a_plain_peer_is_said():
    listener, port = tcp()
    with listener, tls_dial(port) as p, accept(listener) as s:
        s.sendall(b"220 mail.example ESMTP\r\n")
        check_equal(1, p.wait(), "exit code")
        check(b"does not speak TLS" in p.err, bytes(p.err))


@native
def tls_with_openssl_and_ncat():
    port = closed_port()
    with other(tool("openssl"), "s_server", "-accept", "127.0.0.1:%d" % port, "-quiet", "-cert",
               certs("good.pem"), "-key", certs("key.pem"), "-naccept", 1) as q:
        when_listening(port)
        with tls_dial(port) as p:
            chat(p, q)
    for command in ((tool("openssl"), "s_client", "-quiet", "-connect", "127.0.0.1:PORT",
                     "-verify_return_error", "-CAfile", certs("ca.pem")),
                    (tool("ncat"), "--ssl-verify", "--ssl-trustfile", certs("ca.pem"),
                     "localhost", "PORT")):
        with tls_listen() as p:
            place = str(p.port(p.err))
            with other(*[str(w).replace("PORT", place) for w in command]) as q:
                chat(p, q)


# --- other programs as the other end -------------------------------------------------------------

def both_ways_between(p, q, p_ends_last=False):
    """10 MiB in each direction at once, between our nc and another program."""
    q.feed_and_end(DOWN)
    if p_ends_last:
        p.feed(UP)
        with p.changed:
            check(p.changed.wait_for(lambda: len(p.out) >= len(DOWN), 30), "the rest is missing")
        p.end_input()
    else:
        p.feed_and_end(UP)
    check_equal(0, p.wait(), "exit code of %s (%s)" % (p.command, bytes(p.err)))
    check_equal(0, q.wait(), "exit code of %s (%s)" % (q.command, bytes(q.err)))
    same(UP, bytes(q.out), "to %s" % q.command[0])
    same(DOWN, bytes(p.out), "from %s" % q.command[0])


def other(*command):
    return Run([str(w) for w in command], emulate=False)


def is_listening(place, protocol):
    state = {"tcp": "0A", "udp": "07"}[protocol]
    if isinstance(place, str):
        with open("/proc/net/unix") as f:  # flag 0x10000: listens, and is not only bound
            return any(row[-1] == place and int(row[3], 16) & 0x10000
                       for row in (line.split() for line in f.readlines()[1:]))
    for table in ("/proc/net/" + protocol, "/proc/net/%s6" % protocol):
        if not os.path.exists(table):
            continue
        with open(table) as f:
            rows = [line.split() for line in f.readlines()[1:]]
        if any(row[1].endswith(":%04X" % place) and row[3] == state for row in rows):
            return True
    return False


def when_listening(place, protocol="tcp"):
    """Wait until another program listens on a port or path, without connecting to it."""
    if not LINUX:
        raise Skip("who listens is read from Linux's /proc")
    end = time.monotonic() + 10
    while not is_listening(place, protocol):
        check(time.monotonic() < end, "nobody listens on %s" % place)
        time.sleep(0.02)  # nothing tells


def dials_others(family, *command, q_ends_with_us=False):
    """Our nc dials another program; PORT stands for a port that was free a moment ago.

    Some end with their peer's stream when they listen, whatever they have left to send."""
    host = "::1" if family == 6 else "127.0.0.1"
    if family == 6:
        need_ipv6()
    port = closed_port()
    with other(*[w.replace("PORT", str(port)) for w in command]) as q:
        when_listening(port)
        with nc("-N", host, port) as p:
            both_ways_between(p, q, q_ends_with_us)


def listens_for_others(host, *command):
    if host == "::1":
        need_ipv6()
    with nc("-lN", host, 0) as p:
        port = p.port(p.err)
        with other(*[w.replace("PORT", str(port)) for w in command]) as q:
            both_ways_between(p, q)


@fact
def socat_listens():
    dials_others(4, tool("socat"), "-t10", "-", "TCP4-LISTEN:PORT,bind=127.0.0.1,reuseaddr")
    dials_others(6, tool("socat"), "-t10", "-", "TCP6-LISTEN:PORT,bind=[::1],reuseaddr")


@native
def socat_dials():
    listens_for_others("127.0.0.1", tool("socat"), "-t10", "-", "TCP4:127.0.0.1:PORT")
    listens_for_others("::1", tool("socat"), "-t10", "-", "TCP6:[::1]:PORT")


@native
def ncat_listens():
    dials_others(4, tool("ncat"), "-l", "127.0.0.1", "PORT", q_ends_with_us=True)
    dials_others(6, tool("ncat"), "-l", "::1", "PORT", q_ends_with_us=True)


@native
def ncat_dials():
    listens_for_others("127.0.0.1", tool("ncat"), "127.0.0.1", "PORT")
    listens_for_others("::1", tool("ncat"), "::1", "PORT")


@native
def netcat_listens():
    dials_others(4, openbsd_nc(), "-lN", "127.0.0.1", "PORT", q_ends_with_us=True)
    dials_others(6, openbsd_nc(), "-lN", "::1", "PORT", q_ends_with_us=True)


@native
def netcat_dials():
    listens_for_others("127.0.0.1", openbsd_nc(), "-N", "127.0.0.1", "PORT")
    listens_for_others("::1", openbsd_nc(), "-N", "::1", "PORT")


def unix_streams_with(listen, dial):
    need_unix()
    place = path("with-others")
    with other(*[w.replace("PATH", place) for w in listen]) as q:
        when_listening(place)
        with nc("-NU", place) as p:
            both_ways_between(p, q, True)
    if os.path.exists(place):
        os.unlink(place)
    with nc("-lvNU", place) as p:
        p.expect(b"listening on", p.err)
        with other(*[w.replace("PATH", place) for w in dial]) as q:
            both_ways_between(p, q)


@native
def unix_streams_with_socat():
    socat = tool("socat")
    unix_streams_with((socat, "-t10", "-", "UNIX-LISTEN:PATH"),
                      (socat, "-t10", "-", "UNIX-CONNECT:PATH"))


@native
def unix_streams_with_ncat():
    ncat = tool("ncat")
    unix_streams_with((ncat, "-lU", "PATH"), (ncat, "-U", "PATH"))


@native
def unix_streams_with_netcat():
    netcat = openbsd_nc()
    unix_streams_with((netcat, "-lNU", "PATH"), (netcat, "-NU", "PATH"))


def chat(p, q):
    """A line each way, `q` first."""
    q.feed(b"question\n")
    p.expect(b"question\n")
    p.feed(b"answer\n")
    q.expect(b"answer\n")


def udp_with(*command):
    with nc("-lu", "127.0.0.1", 0) as p:
        with other(*[w.replace("PORT", str(p.port(p.err))) for w in command]) as q:
            chat(p, q)


@native
def udp_with_socat():
    udp_with(tool("socat"), "-", "UDP4:127.0.0.1:PORT")


@native
def udp_with_ncat():
    udp_with(tool("ncat"), "-u", "127.0.0.1", "PORT")


@native
def udp_with_netcat():
    udp_with(openbsd_nc(), "-u", "127.0.0.1", "PORT")


@native
def udp_to_a_listening_socat():
    socat = tool("socat")
    port = closed_port()
    with other(socat, "-", "UDP4-RECVFROM:%d,bind=127.0.0.1" % port) as q:
        when_listening(port, "udp")
        with nc("-u", "127.0.0.1", port) as p:
            chat(q, p)


@native
def unix_datagrams_with_socat():
    need_unix()
    socat = tool("socat")
    with nc("-lvuU", path("dgram-nc")) as p:
        p.expect(b"listening on", p.err)
        there, here = path("dgram-nc"), path("dgram-so")
        with other(socat, "-", "UNIX-SENDTO:%s,bind=%s" % (there, here)) as q:
            chat(p, q)


@fact
def nc_with_nc():
    with nc("-lN", "127.0.0.1", 0) as p, nc("-N", "127.0.0.1", p.port(p.err)) as q:
        both_ways_between(p, q)


main("nc")
