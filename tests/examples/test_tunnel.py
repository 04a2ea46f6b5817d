#!/usr/bin/env python3
"""Drives examples/apps/tunnel.c: two of them, a link between them, and curl, netcat, Python's
sockets and http.server at both ends. Where there is no TLS library the same runs with --plain."""
import hashlib
import http.server
import re
import select
import signal
import socket
import ssl
import threading
import time

from common import (Run, WINE, certs, check, check_equal, check_idle, end_of, fact, in_thread,
                    main, memory_kib, native, need_ipv6, need_tls, no_tls, openbsd_nc, payload,
                    program, receive_all, reset, run, tool)

MIB = 1 << 20
PROGRAM = program("tunnel")


def identity(cert, ca="ca.pem"):
    if no_tls():
        return ["--plain"]
    return ["--cert", certs(cert + ".crt"), "--key", certs("key.pem"), "--ca", certs(ca)]


def serve(*options, port=0, cert="good", ca="ca.pem"):
    return Run([PROGRAM, "serve", "127.0.0.1:%d" % port] + identity(cert, ca) + list(options))


def connect(port, *options, cert="client2", ca="ca.pem"):
    return Run([PROGRAM, "connect", "127.0.0.1:%d" % port] + identity(cert, ca) + list(options))


class Tunnel:
    """Both ends of a link, and a forward to each of the targets; `clients(i)` connects to one."""

    def __init__(self, *targets, options=(), wait=True):
        self.options = list(options)
        self.targets = ["127.0.0.1:%d" % t for t in targets]
        allow = [word for t in self.targets for word in ("--allow", t)]
        rules = [word for t in self.targets for word in ("-L", "0:" + t)]
        self.far = serve(*allow, *self.options)
        self.near = connect(self.far.port(), *rules, *self.options)
        if wait:
            self.near.expect(rb" up\r?\n", self.near.err)

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.near.__exit__(*details)
        self.far.__exit__(*details)

    def port(self, i=0):
        target = re.escape(self.targets[i].encode())
        return int(self.near.expect(rb"listening on \S+:(\d+) for " + target).group(1))

    def client(self, i=0):
        return socket.create_connection(("127.0.0.1", self.port(i)))

    def said(self, pattern, far=False):
        end = self.far if far else self.near
        return end.expect(pattern, end.err)


class Listener:
    """Targets by hand."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=300)
        self.socket.settimeout(30)
        self.port = self.socket.getsockname()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def accept(self):
        s, _ = self.socket.accept()
        s.settimeout(30)
        return s


class Web:
    """Python's http.server with one file."""

    def __init__(self, body):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def get(port):
    code, out, err = run([tool("curl"), "-sS", "--max-time", "20", "http://127.0.0.1:%d/" % port],
                         emulate=False)
    check_equal((0, ""), (code, err), "curl")
    return out


def pour(s, data, times):
    for _ in range(times):
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)


def digest_of(s):
    digest, size = hashlib.sha256(), 0
    while True:
        data = s.recv(1 << 18)
        if not data:
            return size, digest.hexdigest()
        digest.update(data)
        size += len(data)


def fill(s):
    """Send until nothing more goes for half a second. Returns how much that was."""
    block, sent = b"x" * MIB, 0
    s.setblocking(False)
    while sent < 256 * MIB and select.select([], [s], [], 0.5)[1]:
        try:
            sent += s.send(block)
        except BlockingIOError:
            pass
    s.settimeout(30)
    return sent


# --- forwards ---

@native
def curl_through_a_forward():
    body = payload(3 * MIB)
    with Web(body) as web, Tunnel(web.port) as t:
        for _ in range(3):
            check(get(t.port()) == body, "bytes differ")
        t.said(rb"1 127.0.0.1:%d: ended; \d+ bytes from here, 31\d+ to here" % web.port)
        t.said(rb"1 127.0.0.1:%d: ended; 31\d+ bytes from here, \d+ to here" % web.port, far=True)


@fact
def a_stalled_forward_does_not_stall_another():
    block, times = payload(MIB), 5 if WINE else 50
    want = hashlib.sha256(block * times).hexdigest()
    with Listener() as a, Listener() as b, Tunnel(a.port, b.port) as t:
        with t.client(0) as stuck, a.accept() as stuck_far, t.client(1) as free, \
                b.accept() as free_far:
            stuck.sendall(b"x")
            free.sendall(b"x")
            check_equal(b"xx", receive_all(stuck_far, 1) + receive_all(free_far, 1), "first bytes")
            before = 0 if WINE else memory_kib(t.near.pid) + memory_kib(t.far.pid)
            up = fill(stuck)  # and nobody reads, both ways
            down = 0 if WINE else fill(stuck_far)
            check(up < 64 * MIB and down < 64 * MIB, "takes %d and %d bytes" % (up, down))
            pouring = [in_thread(pour, s, block, times) for s in (free, free_far)]
            got = in_thread(digest_of, free_far)
            check_equal((times * MIB, want), digest_of(free), "down")
            check_equal((times * MIB, want), got(), "up")
            for join in pouring:
                join()
            if not WINE:
                grown = memory_kib(t.near.pid) + memory_kib(t.far.pid) - before
                check(grown < 16 * 1024, "both grew by %d KiB" % grown)
            for s in stuck, stuck_far:
                s.shutdown(socket.SHUT_WR)
            got = in_thread(digest_of, stuck_far)
            check_equal(down, digest_of(stuck)[0], "what was stuck on the way down")
            check_equal(up, got()[0], "what was stuck on the way up")


@native
def a_hundred_clients_share_the_link():
    data = payload(20000)

    def echo(s):
        with s:
            while True:
                got = s.recv(65536)
                if not got:
                    return
                s.sendall(got)
    with Listener() as a, Tunnel(a.port) as t:
        clients = [t.client() for _ in range(100)]
        for _ in clients:
            in_thread(echo, a.accept())
        for i, s in enumerate(clients):
            s.sendall(data + b"%08d" % i)
            s.shutdown(socket.SHUT_WR)
        for i, s in enumerate(clients):
            check(receive_all(s) == data + b"%08d" % i, "bytes of client %d differ" % i)
            s.close()


@native
def a_half_close_goes_through():
    nc = openbsd_nc()

    def answer(a):
        with a.accept() as s:
            data = receive_all(s)  # to the end of what the client says
            s.sendall(data[::-1])
    with Listener() as a, Tunnel(a.port) as t:
        for data in b"olleh", payload(2 * MIB):
            serving = in_thread(answer, a)
            code, out, err = run([nc, "-N", "127.0.0.1", str(t.port())], stdin=data, emulate=False)
            serving()
            check_equal((0, len(data), ""), (code, len(out), err), "nc")
            check(out == data[::-1], "bytes differ")
        # The target ends first, and the client goes on.
        with t.client() as client, a.accept() as s:
            s.shutdown(socket.SHUT_WR)
            check_equal(b"", receive_all(client), "the target's end")
            pouring = in_thread(pour, client, data, 1)
            check_equal(len(data), digest_of(s)[0], "after it")
            pouring()


@native
def a_reset_goes_through():
    with Listener() as a, Tunnel(a.port) as t:
        with t.client() as client, a.accept() as s:
            client.sendall(b"1")
            receive_all(s, 1)
            reset(client)
            check_equal("reset", end_of(s), "the target's end")
            t.said(rb"given up over there: connection reset", far=True)
        with t.client() as client:
            s = a.accept()
            s.sendall(b"1")
            receive_all(client, 1)
            reset(s)
            check_equal("reset", end_of(client), "the client's end")
            t.said(rb"given up over there: connection reset")


@native
def forwards_go_the_other_way_too():
    with Listener() as a:
        target = "127.0.0.1:%d" % a.port
        with serve("-L", "0:" + target) as far:
            rule = int(far.expect(rb"on \S+:(\d+) for").group(1))
            port = int(far.expect(rb"on \S+:(\d+)\r?\n").group(1))
            with connect(port, "--allow", target) as near:
                near.expect(rb" up\r?\n", near.err)
                far.expect(rb" up\r?\n", far.err)
                with socket.create_connection(("127.0.0.1", rule)) as client, a.accept() as s:
                    client.sendall(b"hello")
                    check_equal(b"hello", receive_all(s, 5), "from the serving end")


# --- what is refused ---

def check_refused(port):
    try:
        with socket.create_connection(("127.0.0.1", port)) as s:
            check_equal("reset", end_of(s), "the client's end")
    except ConnectionError:  # so soon
        pass


@native
def targets_are_refused_with_a_reason():
    with Listener() as a:
        nobody = a.port
    with Listener() as a, Tunnel(nobody) as t:
        check_refused(t.port())
        t.said(rb"127.0.0.1:%d: given up over there: connection refused" % nobody)
        with connect(t.far.port(), "-L", "0:127.0.0.1:%d" % a.port) as near:
            near.expect(rb" up\r?\n", near.err)
            check_refused(int(near.expect(rb":(\d+) for").group(1)))
            near.expect(rb"127.0.0.1:%d: given up over there: permission denied" % a.port, near.err)
            t.said(rb"127.0.0.1:%d: refused: permission denied" % a.port, far=True)
            check(not select.select([a.socket], [], [], 0.1)[0], "it connected all the same")


@native
def clients_above_the_limit_are_refused():
    with Listener() as a:
        target = "127.0.0.1:%d" % a.port
        with serve("--allow", target, "--channels", "2") as far, \
                connect(far.port(), "-L", "0:" + target) as near:
            near.expect(rb" up\r?\n", near.err)
            port = int(near.expect(rb":(\d+) for").group(1))
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
            targets = [a.accept() for _ in clients]
            check_refused(port)
            near.expect(rb"5 \S+ given up over there: limit reached", near.err)
            for s in clients + targets:
                s.close()
            near.expect(rb"(ended; .*){2}", near.err)
            with socket.create_connection(("127.0.0.1", port)), a.accept():
                pass  # there is room again


@fact
def who_the_peer_is_stands_in_the_log():
    need_tls()
    with Tunnel() as t:
        t.said(rb"link with 127.0.0.1:\d+, who is CN=example.test, certificate [0-9a-f]{8}, TLS")
        t.said(rb"link with 127.0.0.1:\d+, who is O=netio,CN=Client\\?, Ltd., cert", far=True)


@fact
def a_client_of_another_ca_is_refused():
    need_tls()
    with Tunnel(wait=False) as _, serve() as far:
        with connect(far.port(), cert="client_other") as near:
            far.expect(rb"refused 127.0.0.1:\d+: [^\n]*(trust|issuer|CA)", far.err)
            near.expect(rb"link ended: [^\n]*(unknown|CA|alert)[^\n]*\n[^\n]*again in", near.err)
            check(b" up\n" not in near.err, "it counts as up")
            check(b"link with" not in far.err, "it was let in")


@fact
def a_server_of_another_ca_or_name_is_refused():
    need_tls()
    for options in {"cert": "untrusted"}, {"cert": "other_name"}:
        with serve(**options) as far, connect(far.port()) as near:
            near.expect(rb"link ended: [^\n]*(trust|issuer|example|127.0.0.1)", near.err)
            check(b"link with" not in near.err, "it was believed")
    with serve(cert="other_name") as far, connect(far.port(), "--name", "other.test") as near:
        near.expect(rb" up\n", near.err)


@fact
def a_client_without_a_certificate_is_refused():
    need_tls()
    with serve() as far:
        context = ssl.create_default_context(cafile=certs("ca.pem"))
        context.set_alpn_protocols(["netio-tunnel/1"])
        try:
            with context.wrap_socket(socket.create_connection(("127.0.0.1", far.port())),
                                     server_hostname="localhost") as s:
                s.recv(1)
            raise AssertionError("it was let in")
        except (ssl.SSLError, ConnectionError) as e:
            check("CERTIFICATE_REQUIRED" in str(e) or "HANDSHAKE" in str(e) or "reset" in str(e), e)
        far.expect(rb"refused 127.0.0.1:\d+: [^\n]*certificate", far.err)
        # Nor without TLS at all, nor with another protocol inside.
        with socket.create_connection(("127.0.0.1", far.port())) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            receive_all(s)
        far.expect(rb"(refused [^\n]*\n.*){2}", far.err)
        context.load_cert_chain(certs("client.crt"), certs("key.pem"))
        context.set_alpn_protocols(["h2"])
        try:
            with context.wrap_socket(socket.create_connection(("127.0.0.1", far.port())),
                                     server_hostname="localhost") as s:
                s.recv(1)
            raise AssertionError("it was let in")
        except (ssl.SSLError, ConnectionError):
            pass
        check(b"link with" not in far.err, "it was let in")


@native
def a_peer_that_breaks_the_rules_is_given_up():
    with serve() as far:
        def link():
            s = socket.create_connection(("127.0.0.1", far.port()))
            if no_tls():
                return s
            context = ssl.create_default_context(cafile=certs("ca.pem"))
            context.load_cert_chain(certs("client.crt"), certs("key.pem"))
            return context.wrap_socket(s, server_hostname="localhost")
        for frame, why in ((b"\0\5\0\1x", rb"data for a channel that is not open"),
                           (b"\0\0\0\1\x63", rb"an unknown control frame")):
            with link() as s:
                s.sendall(frame)
                try:
                    receive_all(s)
                except (ssl.SSLError, ConnectionError):
                    pass
            far.expect(rb"given up: " + why, far.err)


# --- the link ---

@native
def a_killed_link_comes_back():
    with Listener() as a, Tunnel(a.port) as t:
        with t.client() as client, a.accept() as s:
            client.sendall(b"1")
            receive_all(s, 1)
            port = t.far.port()
            t.far.process.kill()
            t.far.wait()
            check_equal("reset", end_of(client), "the client's end")
            t.said(rb"link ended: .*again in \d+ ms")
        try:
            with t.client() as s:
                check_equal("reset", end_of(s), "a client's end")
        except ConnectionResetError:
            pass
        t.said(rb"client refused: there is no link")
        t.said(rb"(again in \d+ ms.*){2}")
        t.far.__exit__()
        t.far = serve("--allow", t.targets[0], port=port)
        t.said(rb" up\n.* up\n")
        with t.client() as client, a.accept() as s:
            client.sendall(b"again")
            check_equal(b"again", receive_all(s, 5), "over the new link")


@native
def a_link_that_died_in_silence_is_given_up():
    with Listener() as a, Tunnel(a.port, options=("--silence", "1")) as t:
        with t.client() as client, a.accept():
            t.far.process.send_signal(signal.SIGSTOP)
            start = time.monotonic()
            check_equal("reset", end_of(client), "the client's end")
            check(0.4 < time.monotonic() - start < 10, "after %.1f s" % (time.monotonic() - start))
            t.said(rb"silent: given up")
            t.far.process.send_signal(signal.SIGCONT)


@native
def the_stop_lets_forwards_finish():
    for which in "near", "far":
        with Listener() as a, Tunnel(a.port) as t:
            with t.client() as client, a.accept() as s:
                client.sendall(b"question")
                receive_all(s, 8)
                end = getattr(t, which)
                end.process.send_signal(signal.SIGTERM)
                end.expect(rb"stopping\n", end.err)
                check_refused(t.port())
                if which == "far":
                    t.said(rb"given up over there: cancel")
                s.sendall(b"answer")
                s.close()
                check_equal(b"answer", receive_all(client), "the answer")
                client.close()
                check_equal(0, end.wait(5), "exit code")
        with Tunnel() as t:
            check_equal(0, t.far.stop(), "exit code of an idle one")
            t.said(rb"link ended in order")
            check_equal(0, t.near.stop(), "exit code of an idle one")


@native
def a_stop_has_an_end():
    with Listener() as a, Tunnel(a.port, options=("--grace", "1")) as t:
        with t.client() as client, a.accept():
            t.near.process.send_signal(signal.SIGTERM)
            check_equal("reset", end_of(client), "the client's end")
            check_equal(0, t.near.wait(5), "exit code")


@native
def idle_costs_nothing():
    with Listener() as a, Tunnel(a.port) as t:
        with t.client() as client, a.accept() as s:
            client.sendall(b"x")
            receive_all(s, 1)
            check_idle(t.near.pid, 1)
            check_idle(t.far.pid, 1)


# --- by hand ---

@fact
def lines_reach_their_targets():
    with Listener() as a, Listener() as b:
        with Run([PROGRAM, "text", "127.0.0.1:0", "--allow", "127.0.0.1:%d" % a.port,
                  "--allow", "127.0.0.1:%d" % b.port]) as p:
            with socket.create_connection(("127.0.0.1", p.port())) as s, a.accept() as first, \
                    b.accept() as second:
                s.sendall(b"0:a:b\n1:two\nnonsense\n70000:x\n:x\n7:nobody\n0:\n1:end\n")
                check_equal(b"a:b\n\n", receive_all(first, 5), "of the first")
                check_equal(b"two\nend\n", receive_all(second, 8), "of the second")
                second.sendall(b"answer\nmore\n")
                check_equal(b"1:answer\n1:more\n", receive_all(s, 16), "from the second")
                s.shutdown(socket.SHUT_WR)
                check_equal((b"", b""), (receive_all(first), receive_all(second)), "ends")
                first.sendall(b"late: but here\n")
                first.close()
                second.close()
                check_equal(b"0:late: but here\n", receive_all(s), "after the end")
            p.expect(rb"3 lines were none, 1 for nobody, 0 for those", p.err)


@native
def http_by_hand():
    nc = openbsd_nc()
    with Web(b"body\n") as web:
        with Run([PROGRAM, "text", "127.0.0.1:0", "--allow", "127.0.0.1:%d" % web.port]) as p:
            code, out, _ = run([nc, "-N", "127.0.0.1", str(p.port())], emulate=False,
                               stdin=b"0:GET / HTTP/1.0\n0:\n")
            check_equal(0, code, "exit code of nc")
            check(out.startswith(b"0:HTTP/1.0 200 OK\n") and out.endswith(b"0:\n0:body\n"), out)


SOME = ["--cert", "c", "--key", "k", "--ca", "a"]


@fact
def files_or_a_library_that_are_missing_are_said():
    code, _, err = run([PROGRAM, "serve", "127.0.0.1:0"] + SOME)
    check_equal(1, code, "exit code")
    check(("built without TLS" if no_tls() else "cannot read a: ") in err, err)


@native
def wrong_use_is_said():
    for words, why in (([], "usage"), (["serve"], "usage"), (["what", ":1"], "usage"),
                       (["serve", "127.0.0.1:0"], "both ends need --cert, --key and --ca"),
                       (["serve", ":0", "--plain"], "loopback"),
                       (["connect", "192.0.2.1:1", "--plain"], "loopback"),
                       (["text", "127.0.0.1:0"], "--allow"),
                       (["serve", ":0", "--links", "0"] + SOME, "--links"),
                       (["serve", ":0", "--allow"] + SOME[:1], "--allow"),
                       (["connect", "a:1", "-L", "80"] + SOME, "-L"),
                       (["connect", "a:1", "-L", "80:a"] + SOME, "-L"),
                       (["connect", "a:1", "--what", "x"] + SOME, "--what")):
        code, _, err = run([PROGRAM] + words)
        check_equal(2, code, "exit code of %r" % words)
        check(why in err, "%r: %r" % (words, err))
    with Listener() as taken:
        code, _, err = run([PROGRAM, "serve", "127.0.0.1:%d" % taken.port] + identity("good"))
        check_equal(1, code, "exit code")
        check("127.0.0.1:%d: address" % taken.port in err, err)
    need_ipv6()
    with serve("-L", "[::1]:0:[::1]:80", "-L", "127.0.0.1:0:example.test:80") as far:
        far.expect(rb"on \[::1\]:\d+ for \[::1\]:80\n")
        far.expect(rb"on 127.0.0.1:\d+ for example.test:80\n")


main("tunnel")
