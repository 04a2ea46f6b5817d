#!/usr/bin/env python3
"""Drives examples/apps/https_get.c against servers that others wrote, and against bad ones; what
curl gets for the same URL is what it must get."""
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

from common import (LINUX, Run, Skip, WINE, certs, check, check_equal, fact, free_port, main,
                    native, need_ipv6, need_tls, no_tls, path, payload, program, run, tool)

PROGRAM = program("https_get")
UNREACHED, BAD_USE, BAD_TLS, BAD_STATUS, MALFORMED, NO_OUTPUT = range(1, 7)
BODY = payload(300000)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def get(*words, **more):
    """Exit code, body, what was said."""
    return run([PROGRAM] + [str(w) for w in words], **more)


def check_get(want, *words):
    code, out, err = get(*words)
    check_equal((0, ""), (code, err), "exit code and stderr of %r" % (words,))
    check_equal(want, out, "body")


def check_fails(want, text, *words, body=b""):
    """It ends with this code, one line on stderr with this text, and nothing more than `body`."""
    code, out, err = get(*words)
    check_equal(want, code, "exit code of %r, which said %r" % (words, err))
    check_equal(1, err.count("\n"), "lines in %r" % err)
    check(err.startswith("https_get: ") and text in err, "no %r in %r" % (text, err))
    check_equal(body, out, "body")


def chunked(body, size=1000, extension=b"", trailers=b""):
    out = b""
    for at in range(0, len(body), size):
        piece = body[at:at + size]
        out += b"%x%s\r\n%s\r\n" % (len(piece), extension, piece)
    return out + b"0\r\n" + trailers + b"\r\n"


def length(body, more=b""):
    return OK + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Server:
    """Answers each request by `answer`: bytes, or a function of the connection and the request."""

    def __init__(self, answer, host="127.0.0.1", context=None, unwrap=True, greeting=b""):
        self.answer, self.greeting = answer, greeting
        self.context, self.unwrap = context, unwrap
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind((host, 0))
        self.listener.listen(50)
        self.port = self.listener.getsockname()[1]
        scheme = "https" if context else "http"
        self.url = "%s://%s:%d" % (scheme, "[%s]" % host if ":" in host else host, self.port)
        self.requests = []    # heads
        self.refused = []     # why a handshake failed
        self.ended = threading.Semaphore(0)  # a connection that was dealt with
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                c = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.deal, args=(c,), daemon=True).start()

    def deal(self, c):
        c.settimeout(20)
        try:
            if self.context:
                try:
                    c = self.context.wrap_socket(c, server_side=True)
                except OSError as e:
                    self.refused.append(str(e))
                    return
            c.sendall(self.greeting)
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                data = c.recv(65536)
                if not data:
                    return
                request += data
            self.requests.append(request)
            if callable(self.answer):
                self.answer(c, request)
            else:
                c.sendall(self.answer)
            if self.context and self.unwrap:
                c.unwrap()
        except OSError as e:
            self.refused.append(str(e))
        finally:
            c.close()
            self.ended.release()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # a thread that waits in accept keeps it open
        except OSError:
            pass
        self.listener.close()


def tls_server(answer, cert="good.pem", alpn=None, **more):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs(cert))
    if alpn:
        context.set_alpn_protocols(alpn)
    return Server(answer, context=context, **more)


def closed_port():
    """A port of ours on which nobody listens, for as long as the socket lives."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    return s


def curl(*words):
    done = subprocess.run([tool("curl"), "-sS", "--http1.1", "--noproxy", "*"] + list(words),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    check_equal((0, b""), (done.returncode, done.stderr), "exit code and stderr of curl")
    return done.stdout


def started(command, port, **more):
    """A server that others wrote, once it answers."""
    p = Run(command, emulate=False, **more)
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return p
        except OSError:
            check(p.process.poll() is None and time.monotonic() < end,
                  "%s does not listen: %r" % (command[0], bytes(p.err)))


def folder_with(name, body):
    folder = path("www")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(body)
    return folder


def read(name):
    with open(name, "rb") as f:
        return f.read()


# --- what comes back, over http ---

@fact
def bodies_by_length_by_chunk_and_by_the_end():
    answers = [
        (length(BODY), BODY),
        (OK + b"\r\n" + BODY, BODY),
        (CHUNKED + chunked(BODY, 7777, b";a=b", b"A: b\r\n"), BODY),
        (length(b""), b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n" + length(BODY), BODY),
        (b"HTTP/1.0 200 OK\r\n\r\n" + BODY, BODY),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (length(b"x", b"X: " + 15000 * b"y" + b"\r\n"), b"x"),
    ]
    for answer, want in answers[:3] if WINE else answers:
        with Server(answer) as s:
            check_get(want, s.url + "/a?b#c")
            if not WINE and shutil.which("curl"):
                check_equal(want, curl(s.url), "what curl got")
            check_equal(b"GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: https_get\r\n"
                        b"Connection: close\r\n\r\n" % s.port, s.requests[0], "request")


@native
def chunks_of_megabytes_and_of_one_byte():
    if WINE:
        raise Skip("nothing of that depends on the system")
    large = payload(5 << 20)

    def answer(c, request):
        body, size = (large, 5 << 20) if b"/large" in request else (b"tiny" * 50, 1)
        c.sendall(CHUNKED + chunked(body, size))
    with Server(answer) as s:
        check_get(large, s.url + "/large")
        check_get(b"tiny" * 50, s.url + "/tiny")


@native
def a_server_that_sends_byte_by_byte():
    if WINE:
        raise Skip("nothing of that depends on the system")
    def answer(c, _):
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in CHUNKED + chunked(b"hello world", 4):
            c.sendall(bytes([byte]))
    with Server(answer) as s:
        check_get(b"hello world", s.url)


@native
def python_serves_files():
    if WINE:
        raise Skip("shown by servers of our own under Wine")
    port = free_port()
    folder = folder_with("file", BODY)
    with started([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder,
                  str(port)], port):
        url = "http://127.0.0.1:%d/" % port
        check_get(BODY, url + "file")
        check_equal(curl(url), get(url)[1], "folder, as curl got it")
        check_fails(BAD_STATUS, "HTTP status 404", url + "nothing")
        os.makedirs(os.path.join(folder, "sub"), exist_ok=True)
        shutil.copy(os.path.join(folder, "file"), os.path.join(folder, "sub", "index.html"))
        check_get(BODY, url + "sub")  # a redirect to sub/


@native
def ipv6_and_names():
    need_ipv6()
    with Server(length(BODY), "::1") as s:
        check_get(BODY, s.url + "/")
        check(b"\r\nHost: [::1]:%d\r\n" % s.port in s.requests[0], s.requests[0])
    with Server(length(BODY)) as s:
        check_get(BODY, "http://LOCALHOST:%d/" % s.port)
        check(b"\r\nHost: localhost:%d\r\n" % s.port in s.requests[0], s.requests[0])


@fact
def dead_addresses_of_a_name_are_passed_over():
    if not LINUX or WINE:
        raise Skip("names of our own are made in a mount namespace")
    hosts = path("hosts")
    with open(hosts, "w") as f:
        f.write("127.0.0.2 many.test\n127.0.0.3 many.test\n127.0.0.1 many.test\n")

    def inside(*words):
        mount = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        return run(["unshare", "-rm", "sh", "-c", mount, "sh", hosts, PROGRAM] + list(words))
    tool("unshare")
    if run(["unshare", "-rm", "mount", "--bind", hosts, "/etc/hosts"])[0] != 0:
        raise Skip("no namespaces of our own here")
    with Server(length(BODY)) as s:
        code, out, err = inside("http://many.test:%d/" % s.port)
        check_equal((0, ""), (code, err))
        check_equal(BODY, out)
        port = s.port
    code, _, err = inside("http://many.test:%d/" % port)
    check_equal(UNREACHED, code)
    check("connection refused (3 addresses tried)" in err, err)


# --- what can go wrong ---

@native
def who_is_not_there():
    with closed_port() as s:
        check_fails(UNREACHED, "connection refused", "http://127.0.0.1:%d/" % s.getsockname()[1])
    if not WINE:
        check_fails(UNREACHED, "nobody.invalid", "--timeout", 20, "http://nobody.invalid/")


@fact
def a_cut_body_is_no_success():
    answers = [
        (length(BODY)[:-1], BODY[:-1], "the end came inside the body"),
        (CHUNKED + chunked(BODY)[:-1], BODY, "inside the body"),
        (CHUNKED + b"5\r\nhel", b"", "inside the body"),
        (OK + b"Content-Le", b"", "the end came inside the head"),
        (b"", b"", "the end came instead of a response"),
    ]
    for answer, body, text in answers[:2] if WINE else answers:
        with Server(answer) as s:
            check_fails(UNREACHED, text, s.url, body=body)


@native
def a_reset_is_no_success():
    if WINE:
        raise Skip("Wine shows a reset as a clean end")
    def answer(c, _):
        c.sendall(OK + b"\r\nhello")
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Server(answer) as s:
        code, out, err = get(s.url)
        check_equal(UNREACHED, code)
        check("connection reset" in err and out in (b"", b"hello"), err)


@native
def what_is_malformed_is_named():
    answers = [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1: no status line"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP/1: no status line"),
        (b"HTTP/1.1 xxx OK\r\n\r\n", "not HTTP/1: no status line"),
        (OK + b"A : b\r\n\r\n", "malformed field"),
        (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "twice, or both"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "twice, or both"),
        (b"HTTP/1.1 200 OK\n\n", "a line end"),
        (OK + b"X: " + 17000 * b"y" + b"\r\n\r\n", "head longer than allowed"),
        (OK + 65 * b"A: b\r\n" + b"\r\n", "more fields than allowed"),
        (CHUNKED + b"xyz\r\n", "malformed chunk"),
        (CHUNKED + b"fffffffff\r\n", "chunk or trailers longer"),
    ]
    for answer, text in answers[:2] if WINE else answers:
        def wait(c, _, answer=answer):
            c.sendall(answer)
            c.recv(1)  # it does not end: this is found in what was said
        with Server(wait) as s:
            check_fails(MALFORMED, text, "--timeout", 20, s.url)


@native
def statuses_decide():
    for status in ("404 Not Found", "500 Oops", "304 Not Modified", "300 Choose"):
        with Server(b"HTTP/1.1 %s\r\nContent-Length: 5\r\n\r\nerror" % status.encode()) as s:
            check_fails(BAD_STATUS, "HTTP status " + status[:3], s.url)
        if WINE:
            return
    for status in (b"201 Created", b"206 Partial"):
        with Server(b"HTTP/1.1 %s\r\nContent-Length: 5\r\n\r\nhello" % status) as s:
            check_get(b"hello", s.url)


@native
def redirects_are_followed_and_counted():
    with Server(length(BODY)) as target:
        def answer(c, request):
            where = request.split()[1]
            to = {b"/a/b": b"../c?d", b"/c?d": b"//127.0.0.1:%d/e" % s.port,
                  b"/e": target.url.encode() + b"/f#g", b"/none": b"",
                  b"/bad": b"http://a b/", b"/user": b"http://u@127.0.0.1/"}.get(where, where)
            location = b"Location: %s\r\n" % to if to else b""
            c.sendall(b"HTTP/1.1 302 Found\r\n%sContent-Length: 3\r\n\r\nnot" % location)
        with Server(answer) as s:
            check_get(BODY, s.url + "/a/b")
            check_equal(b"GET /f HTTP/1.1", target.requests[0].split(b"\r\n")[0])
            s.requests.clear()
            check_fails(BAD_STATUS, "too many redirects", s.url + "/circle")
            check_equal(6, len(s.requests), "requests")
            if WINE:
                return
            check_fails(BAD_STATUS, "HTTP status 302", s.url + "/none")
            for bad in "/bad", "/user":
                check_fails(MALFORMED, "a redirect to what is no URL", s.url + bad)


@fact
def time_is_limited_as_a_whole():
    def silent(c, _):
        c.recv(1)

    def dribble(c, _):
        c.sendall(OK + b"\r\n")
        while True:
            c.sendall(b"x")
            time.sleep(0.05)
    for answer in (silent,) if WINE else (silent, dribble):
        with Server(answer) as s:
            start = time.monotonic()
            code, _, err = get("--timeout", "0.6", s.url)
            took = time.monotonic() - start
            check_equal(UNREACHED, code)
            check("timed out" in err, err)
            check(0.6 <= took < 10, "took %.2f s" % took)


@native
def bodies_have_a_limit():
    if WINE:
        raise Skip("nothing of that depends on the system")
    for answer in (length(b"hello"), OK + b"\r\nhello",
                   CHUNKED + chunked(b"hello", 2)):
        with Server(answer) as s:
            check_get(b"hello", "--max", 5, s.url)
            code, out, err = get("--max", 4, s.url)
            check_equal(MALFORMED, code)
            check("body longer than allowed" in err and len(out) <= 4, err)


@fact
def the_output_may_be_a_file():
    name = path("out")
    with Server(length(BODY)) as s:
        code, out, err = get("-o", name, s.url)
        check_equal((0, b"", ""), (code, out, err))
        check_equal(BODY, read(name))
        check_fails(NO_OUTPUT, "cannot be opened", "-o", path("no/such/folder"), s.url)
        if not LINUX or WINE:
            return
        with open("/dev/full", "wb") as full:
            with Run([PROGRAM, s.url], stdout=full) as p:
                check_equal(NO_OUTPUT, p.wait(), "exit code")
                check(b"the output cannot be written" in p.err, bytes(p.err))
        check_fails(NO_OUTPUT, "cannot be written", "-o", "/dev/full", s.url)
    with Server(length(b"short")) as s:  # it shows only at the end
        check_fails(NO_OUTPUT, "cannot be written", "-o", "/dev/full", s.url)


@native
def wrong_use_is_said():
    for words in ([], ["-o"], ["-x", "http://a/"], ["--timeout", "x", "http://a/"],
                  ["--timeout", "0", "http://a/"], ["--timeout", "1e9", "http://a/"],
                  ["--max", "-1", "http://a/"], ["--max", "", "http://a/"], ["-v"]):
        code, _, err = get(*words)
        check_equal((BAD_USE, True), (code, "usage: https_get" in err), "%r: %r" % (words, err))
        if WINE:
            break
    for url in ("ftp://a/", "a.example", "http://u:p@a/", "http://a:99999/", "http://a/ b",
                "http://127.1/"):
        check_fails(BAD_USE, "no http:// or https:// URL", url)
        if WINE:
            break


# --- several servers ---

@native
def the_next_one_is_asked_when_one_fails():
    with closed_port() as dead, Server(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n") as ill, \
            Server(length(BODY)) as good, Server(length(b"other")) as spare:
        down = "http://127.0.0.1:%d/" % dead.getsockname()[1]
        code, out, err = get(down, ill.url, good.url, spare.url)
        check_equal((0, BODY), (code, out))
        check_equal(2, err.count("\n"), "lines in %r" % err)
        check("connection refused\nhttps_get: %s: HTTP status 503" % ill.url in err, err)
        check_equal([], spare.requests, "requests at who was not needed")
        # The first is preferred again as soon as it is back.
        code, out, err = get(good.url, spare.url)
        check_equal((0, BODY, ""), (code, out, err))
        check_equal([], spare.requests)
        if WINE:
            return
        code, _, err = get(down, ill.url)
        check_equal((BAD_STATUS, 2), (code, err.count("\n")))
        code, _, err = get(ill.url, down)
        check_equal((UNREACHED, 2), (code, err.count("\n")))


@native
def a_part_is_never_followed_by_another_try():
    with Server(length(BODY)[:-1000]) as cut, Server(length(BODY)) as good:
        code, out, err = get(cut.url, good.url)
        check_equal((UNREACHED, BODY[:-1000]), (code, out))
        check_equal([], good.requests, "requests at the next")
        code, _, err = get("-o", path("whole"), cut.url, good.url)
        check_equal((0, 1), (code, err.count("\n")))
        check_equal(BODY, read(path("whole")))
        with Server(length(b"")[:-2]) as early:  # nothing was written yet
            check_equal((0, BODY), get(early.url, good.url)[:2])


# --- https ---

@fact
def without_a_library_it_says_so():
    if not no_tls():
        raise Skip("it was built with a library")
    with closed_port() as s:
        check_fails(BAD_TLS, "built without a TLS library",
                    "https://127.0.0.1:%d/" % s.getsockname()[1])


@native
def verified_servers_are_read():
    for cert in "good.pem", "rsa.pem", "chain.pem":
        with tls_server(length(BODY), cert, alpn=["h2", "http/1.1"]) as s:
            url = "https://localhost:%d/x" % s.port
            code, out, err = get("-v", "--cacert", certs("ca.pem"), url)
            check_equal((0, BODY), (code, out), err)
            check_equal(["localhost:%d: TLSv1.3, TLS_AES_256_GCM_SHA384, http/1.1" % s.port,
                         "localhost:%d: HTTP status 200" % s.port], err.splitlines())
            check_get(BODY, "--cacert", certs("ca.pem"), s.url)  # by its address
            check_equal(BODY, curl("--cacert", certs("ca.pem"), url), "what curl got")
            check_equal(s.requests[0].split(b"\r\n")[0], s.requests[2].split(b"\r\n")[0])


@native
def older_tls_is_spoken_down_to_1_2():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs("good.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Server(length(BODY), context=context) as s:
        code, out, err = get("-v", "--cacert", certs("ca.pem"), s.url)
        check_equal((0, BODY), (code, out), err)
        check(": TLSv1.2, TLS_ECDHE_" in err and ", no ALPN\n" in err, err)


@native
def bad_certificates_are_told_apart_and_get_no_request():
    seen = set()
    for cert, text in (("other_name.pem", "is for other.test, not for 127.0.0.1"),
                       ("expired.pem", "expired on 2021-01-01"),
                       ("not_yet.pem", "not valid before 2048-01-01"),
                       ("self.pem", "is self-signed"),
                       ("untrusted.pem", "issuer Other_Root is unknown"),
                       ("client_eku.pem", "not for TLS servers")):
        with tls_server(length(BODY), cert) as s:
            code, out, err = get("--cacert", certs("ca.pem"), s.url)
            check_equal((BAD_TLS, b"", 1), (code, out, err.count("\n")), err)
            check(text in err, "%s: no %r in %r" % (cert, text, err))
            said = err.split(": ", 2)[2]
            check(said not in seen, "%s: as another: %r" % (cert, said))
            seen.add(said)
            check(s.ended.acquire(timeout=20), "the server waits")
            check_equal([], s.requests, "requests that an impostor got")
            check_equal(1, len(s.refused), "handshakes that failed: %r" % s.refused)
    with tls_server(length(BODY)) as s:  # a good one, but nothing says that its CA is trusted
        check_fails(BAD_TLS, "", s.url)
        check_fails(BAD_TLS, certs("empty.pem"), "--cacert", certs("empty.pem"), s.url)
        check_fails(BAD_TLS, "/nowhere/ca.pem", "--cacert", "/nowhere/ca.pem", s.url)
        check_equal([], s.requests)
        check_get(BODY, "--cacert", certs("ca.pem"), s.url)


@native
def an_impostor_is_passed_over_for_a_mirror():
    with tls_server(length(b"evil"), "other_name.pem") as bad, tls_server(length(BODY)) as good:
        code, out, err = get("--cacert", certs("ca.pem"), bad.url, good.url)
        check_equal((0, BODY, 1), (code, out, err.count("\n")), err)


@native
def a_cut_in_tls_is_told_from_an_end():
    def answer(c, request):
        c.sendall(length(BODY) if b"/length" in request else OK + b"\r\n" + BODY)
    with tls_server(answer, unwrap=False) as s:  # the end comes without close_notify
        check_fails(UNREACHED, "without close_notify", "--cacert", certs("ca.pem"), s.url + "/end",
                    body=BODY)
        check_get(BODY, "--cacert", certs("ca.pem"), s.url + "/length")  # nothing was missing
    with tls_server(OK + b"\r\n" + BODY) as s:
        check_get(BODY, "--cacert", certs("ca.pem"), s.url)


@native
def who_does_not_speak_tls_is_named():
    need_tls()
    with Server(b"", greeting=b"220 mail.test ESMTP\r\n") as s:
        check_fails(BAD_TLS, "does not speak TLS", "https://127.0.0.1:%d/" % s.port)
    with tls_server(length(BODY)) as s:
        code, _, err = get("http://127.0.0.1:%d/" % s.port)
        check(code in (UNREACHED, MALFORMED), err)
        check_equal([], s.requests)


@native
def redirects_never_lead_out_of_https():
    with Server(length(BODY)) as plain:
        with tls_server(b"HTTP/1.1 301 x\r\nLocation: %s/\r\nContent-Length: 0\r\n\r\n" %
                        plain.url.encode()) as s:
            check_fails(BAD_STATUS, "a redirect from https", "--cacert", certs("ca.pem"), s.url)
        check_equal([], plain.requests)
    with tls_server(length(BODY)) as target:
        with Server(b"HTTP/1.1 301 x\r\nLocation: %s/\r\nContent-Length: 0\r\n\r\n" %
                    target.url.encode()) as s:
            check_get(BODY, "--cacert", certs("ca.pem"), s.url)


@native
def openssl_serves_files_and_has_the_last_word_on_alpn():
    folder = folder_with("file", BODY)
    for alpn in None, "http/1.1,h2", "h2":
        port = free_port()
        command = [tool("openssl"), "s_server", "-WWW", "-accept", "127.0.0.1:%d" % port, "-cert",
                   certs("good.pem"), "-key", certs("good.pem"), "-quiet"]
        if alpn:
            command += ["-alpn", alpn]
        with started(command, port, cwd=folder):
            words = ["--cacert", certs("ca.pem"), "https://localhost:%d/file" % port]
            if alpn == "h2":
                check_fails(BAD_TLS, "none of ours in ALPN", *words)
                continue
            code, out, err = get("-v", *words)
            check_equal((0, BODY), (code, out), err)
            check((", http/1.1\n" if alpn else ", no ALPN\n") in err, err)


@native
def nginx_serves_files_whole_and_in_chunks():
    nginx = tool("nginx")
    folder = folder_with("file.txt", BODY)
    port, tls_port = free_port(), free_port()
    temp = "".join("%s_temp_path %s;" % (kind, path("nginx-" + kind))
                   for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = path("nginx.conf")
    with open(config, "w") as f:
        f.write("""daemon off; master_process off; pid %s; error_log stderr;
            events {}
            http { access_log off; root %s; %s
                server { listen 127.0.0.1:%d; listen 127.0.0.1:%d ssl;
                    ssl_certificate %s; ssl_certificate_key %s;
                    location /chunked/ { alias %s/; ssi on; ssi_types *; }
                    location /moved { return 301 https://localhost:%d/file.txt; } } }
            """ % (path("nginx.pid"), folder, temp, port, tls_port, certs("chain.pem"),
                   certs("chain.pem"), folder, tls_port))
    os.chmod(os.path.dirname(folder), 0o755)
    with started([nginx, "-p", path(""), "-c", config, "-e", path("nginx.log")], port):
        for url in ("http://127.0.0.1:%d/" % port, "https://localhost:%d/" % tls_port):
            for name in "file.txt", "chunked/file.txt":
                want = curl("--cacert", certs("ca.pem"), url + name)
                check_equal(BODY, want, "what curl got")
                check_get(want, "--cacert", certs("ca.pem"), url + name)
        check(b"chunked" in curl("-i", "http://127.0.0.1:%d/chunked/file.txt" % port)[:500],
              "nginx did not send chunks")
        check_get(BODY, "--cacert", certs("ca.pem"), "http://127.0.0.1:%d/moved" % port)
        check_fails(BAD_STATUS, "HTTP status 404", "http://127.0.0.1:%d/x" % port)


main("https_get")
