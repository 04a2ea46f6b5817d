#!/usr/bin/env python3
"""Drives examples/apps/http_server.c with curl, wrk, openssl, http.client and raw sockets."""
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time

from common import (EMULATOR, LINUX, Run, Skip, WINE, certs, check, check_equal, cpu_seconds, fact,
                    folder, in_thread, main, memory_kib, native, need_ipv6, need_tls, no_tls, path,
                    payload, program, receive_all, run, tool)

PROGRAM = program("http_server")
KIB, MIB = 1 << 10, 1 << 20
BIG = (1 if EMULATOR else 100) * MIB
LARGE = (1 if EMULATOR else 16) * MIB  # more than all buffers between two processes
ROOT = path("www")
OLD = time.time() - 86400  # files that did not change just now have strong tags


def write(name, data):
    name = os.path.join(ROOT, *name.split("/"))
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name, "wb") as f:
        f.write(data)
    os.utime(name, (OLD, OLD))
    return name


HELLO = b"Hello, web!\n"
MID = payload(64 * KIB, 7)
BIG_DATA = payload(BIG, 9)
LARGE_DATA = BIG_DATA[:LARGE]
write("hello.txt", HELLO)
write("mid.bin", MID)
write("big.bin", BIG_DATA)
write("large.bin", LARGE_DATA)
write("zero.bin", b"")
write("page/index.html", b"<h1>page</h1>")
write("list/a b%&'.txt", b"1")
write("list/\u00fc.txt", b"2")
write("list/sub/x", b"3")
write("list/.hidden", b"4")
write("a b/c.txt", b"5")
os.mkdir(os.path.join(ROOT, "empty"))
with open(path("secret.txt"), "wb") as f:  # next to the folder, never below it
    f.write(b"SECRET")


def server(*options, address="127.0.0.1:0", **more):
    return Run([PROGRAM] + [str(o) for o in options] + [ROOT, address], **more)


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def __repr__(self):
        return "%d %r %r" % (self.status, self.fields, self.body[:80])


class Peer:
    """A connection that is spoken to byte by byte, and a strict reader of answers."""

    def __init__(self, p, wrap=None, room=0):
        self.s = socket.socket()
        self.s.settimeout(20)
        if room:  # of the receive buffer; it can only become smaller before the connection is there
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.s.connect(("127.0.0.1", p if isinstance(p, int) else p.port()))
        if wrap:
            self.s = wrap(self.s)
        self.file = self.s.makefile("rb", 1 << 18)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.s.close()

    def says(self, data):
        self.s.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def line(self):
        line = self.file.readline()
        check(line.endswith(b"\r\n"), "line %r" % line)
        return line[:-2].decode("latin-1")

    def exactly(self, n):
        data = self.file.read(n)
        check_equal(n, len(data), "bytes of the body")
        return data

    def chunks(self):
        """The chunks of a body, which end with an empty one."""
        while True:
            size = int(self.line(), 16)
            data = self.exactly(size)
            check_equal("", self.line(), "behind a chunk")
            if not size:
                return
            yield data

    def hears(self, method="GET"):
        """The next answer; None: the connection ended."""
        line = self.file.readline()
        if not line:
            return None
        found = re.fullmatch(rb"HTTP/1\.1 (\d\d\d) [ -~]+\r\n", line)
        check(found, "status line %r" % line)
        status, fields = int(found.group(1)), {}
        while True:
            line = self.line()
            if not line:
                break
            name, _, value = line.partition(": ")
            check(name.lower() not in fields, "twice: " + name)
            fields[name.lower()] = value
        if method == "HEAD" or status in (100, 304):
            body = b""
        elif fields.get("transfer-encoding") == "chunked":
            check("content-length" not in fields, "both lengths")
            body = b"".join(self.chunks())
        elif "content-length" in fields:
            body = self.exactly(int(fields["content-length"]))
        else:
            check_equal("close", fields.get("connection"), "Connection")
            body = self.file.read()
        return Answer(status, fields, body)

    def asks(self, target, *fields, method="GET", version="1.1", body=""):
        self.says("%s %s HTTP/%s\r\nHost: x\r\n%s\r\n%s" % (
            method, target, version, "".join(f + "\r\n" for f in fields), body))
        return self.hears(method)

    def ended(self):
        try:
            check_equal(b"", self.file.read(), "behind the last answer")
        except ConnectionResetError:
            pass

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.__exit__()


def curl(*words, fails=False):
    code, out, err = run([tool("curl"), "-sS", "--max-time", "30"] + [str(w) for w in words],
                         emulate=False)
    check(fails or code == 0, "curl %r: %d %s" % (words, code, err))
    return out


def url(p, name="", scheme="http", host="127.0.0.1"):
    return "%s://%s:%d/%s" % (scheme, host, p.port(), name)


def sha(data):
    return hashlib.sha256(data).hexdigest()


shared = []


def served(function):
    """A fact about a server without options; under Wine, where each start takes seconds, one server
    is enough for all of them."""
    def on_its_own():
        with server() as p:
            function(p)
    on_its_own.__name__ = function.__name__
    shared.append(function)
    if not WINE:
        fact(on_its_own)
    return function


def need_signals():
    if WINE:
        raise Skip("no signals under Wine")


def need_proc():
    if not LINUX or EMULATOR:
        raise Skip("looks at Linux's /proc")


def status_of(p):
    with Peer(p) as c:
        return json.loads(c.asks("/status", "Accept: application/json").body)


def descriptors(p):
    need_proc()
    return len(os.listdir("/proc/%d/fd" % p.pid))


def until(condition, what):
    end = time.monotonic() + 20
    while not condition():
        check(time.monotonic() < end, "never " + what)
        time.sleep(0.02)


def still_serves(p):
    with Peer(p) as c:
        check_equal(HELLO, c.asks("/hello.txt").body, "a good client's answer")


# --- files ---

@served
def curl_gets_files_whole(p):
    for name, want in (("hello.txt", HELLO), ("mid.bin", MID), ("big.bin", BIG_DATA),
                       ("zero.bin", b""), ("a%20b/c.txt", b"5"), ("page/", b"<h1>page</h1>")):
        check_equal(sha(want), sha(curl(url(p, name))), "hash of " + name)
    check_equal(b"200 text/plain; charset=utf-8 12", curl(
        "-o", os.devnull, "-w", "%{http_code} %{content_type} %{size_download}",
        url(p, "hello.txt")), "what curl saw")


@served
def curl_follows_to_a_folder(p):
    got = curl("-L", "-w", "|%{http_code}|%{url_effective}", url(p, "page"))
    check_equal(b"<h1>page</h1>|200|" + url(p, "page/").encode(), got, "page")
    with Peer(p) as c:
        a = c.asks("/a%20b?x=1")
        check_equal((301, "/a%20b/"), (a.status, a.fields["location"]), "redirect")


@served
def curl_gets_ranges_slowly_and_goes_on(p):
    check_equal(BIG_DATA[5:70001], curl("-r", "5-70000", url(p, "big.bin")), "range")
    check_equal(BIG_DATA[-100:], curl("-r", "-100", url(p, "big.bin")), "the last bytes")
    check_equal(BIG_DATA[:600000], curl("--limit-rate", "200k", "-r", "0-599999",
                                        url(p, "big.bin")), "slowly")
    half = path("half.bin")
    with open(half, "wb") as f:
        f.write(BIG_DATA[:12345])
    curl("-C", "-", "-o", half, url(p, "large.bin"))
    with open(half, "rb") as f:
        check_equal(sha(LARGE_DATA), sha(f.read()), "hash of a download that was resumed")
    os.remove(half)


@served
def ranges_of_a_big_file_are_its_bytes(p):
    chance = random.Random(4)
    before = status_of(p)["accepted"]
    c = http.client.HTTPConnection("127.0.0.1", p.port())
    for i in range(20 if EMULATOR else 120):
        size = chance.choice((1, 100, 16 * KIB, 16 * KIB + 1, 70000, MIB, 3 * MIB))
        first = chance.randrange(BIG)
        last = min(first + size, BIG) - 1
        c.request("GET", "/big.bin", headers={"Range": "bytes=%d-%d" % (first, last)})
        r = c.getresponse()
        check_equal((206, "bytes %d-%d/%d" % (first, last, BIG)),
                    (r.status, r.getheader("Content-Range")), "range %d" % i)
        check_equal(sha(BIG_DATA[first:last + 1]), sha(r.read()), "hash of range %d" % i)
    c.close()
    check_equal(2, status_of(p)["accepted"] - before, "connections, with that for the status")


@native
def ranges_beyond_4_gib():
    if EMULATOR:
        raise Skip("32-bit systems serve no files as large")
    name, at = os.path.join(ROOT, "huge.bin"), (9 << 29) + 7
    with open(name, "wb") as f:  # nearly all of it a hole
        f.seek(at)
        f.write(MID)
    with server() as p, Peer(p) as c:
        a = c.asks("/huge.bin", method="HEAD")
        check_equal(str(at + len(MID)), a.fields["content-length"], "length")
        check_equal(MID, c.asks("/huge.bin", "Range: bytes=-65536").body, "from the file")
        check_equal(MID[5:905], c.asks("/huge.bin", "Range: bytes=%d-%d" % (at + 5, at + 904)).body,
                    "from memory")
    os.remove(name)


@served
def edges_of_ranges(p):
    whole, none = (200, None, HELLO), (416, "bytes */12", b"")
    cases = {
        "bytes=0-": (206, "bytes 0-11/12", HELLO), "bytes=0-0": (206, "bytes 0-0/12", b"H"),
        "bytes=11-": (206, "bytes 11-11/12", b"\n"),
        "bytes=3-99": (206, "bytes 3-11/12", HELLO[3:]),
        "bytes=-5": (206, "bytes 7-11/12", HELLO[7:]), "bytes=-99": (206, "bytes 0-11/12", HELLO),
        "BYTES=1-1": (206, "bytes 1-1/12", b"e"), "bytes=12-": none, "bytes=12-12": none,
        "bytes=-0": none, "bytes=99999999999999999999-": none,
        "bytes=0-99999999999999999999999": (206, "bytes 0-11/12", HELLO),
        "bytes=-99999999999999999999999": (206, "bytes 0-11/12", HELLO),
        "bytes=5-4": whole, "bytes=": whole, "bytes=-": whole, "bytes=a-b": whole,
        "bytes=0-1,3-4": whole, "lines=0-1": whole, "bytes=1-2x": whole, "bytes=--1": whole,
        "bytes 0-1": whole, "bytes=+1-2": whole,
    }
    with Peer(p) as c:
        for text, want in cases.items():
            a = c.asks("/hello.txt", "Range: " + text)
            check_equal(want, (a.status, a.fields.get("content-range"), a.body), text)
        a = c.asks("/hello.txt", "Range: bytes=0-1", method="HEAD")
        check_equal((200, "12"), (a.status, a.fields["content-length"]), "a range of HEAD")
        a = c.asks("/zero.bin", "Range: bytes=0-")
        check_equal((416, "bytes */0"), (a.status, a.fields["content-range"]), "of nothing")
        check_equal((200, b""), (lambda a: (a.status, a.body))(
            c.asks("/zero.bin", "Range: bytes=-5")), "the end of nothing")


@served
def what_the_client_has_is_not_sent(p):
    with Peer(p) as c:
        a = c.asks("/hello.txt")
        tag, date = a.fields["etag"], a.fields["last-modified"]
        check(re.fullmatch(r'"[0-9a-f-]+"', tag), tag)
        check_equal(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(OLD)), date, "date")
        for status, fields in (
                (304, ["If-None-Match: " + tag]), (304, ["If-None-Match: *"]),
                (304, ["If-None-Match: \"x\", W/" + tag]), (304, ["If-Modified-Since: " + date]),
                (304, ["If-None-Match: \"x\"", "If-None-Match: " + tag]),
                (200, ["If-None-Match: \"x\""]),
                (200, ["If-None-Match: \"x\"", "If-Modified-Since: " + date]),
                (200, ["If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"]),
                (200, ["If-Match: " + tag]), (200, ["If-Match: *"]), (412, ["If-Match: \"x\""]),
                (206, ["Range: bytes=0-1", "If-Range: " + tag]),
                (206, ["Range: bytes=0-1", "If-Range: " + date]),
                (200, ["Range: bytes=0-1", "If-Range: \"x\""]),
                (200, ["Range: bytes=0-1", "If-Range: W/" + tag]),
                (304, ["Range: bytes=0-1", "If-None-Match: " + tag])):
            for method in ("GET", "HEAD"):
                want = 200 if (method, status) == ("HEAD", 206) else status
                a = c.asks("/hello.txt", *fields, method=method)
                check_equal(want, a.status, "%s %r" % (method, fields))
                if status == 304:
                    check_equal(tag, a.fields["etag"], "tag of a 304")
        fresh = write("fresh.txt", b"1")
        now = time.time()
        os.utime(fresh, (now, now))
        check(c.asks("/fresh.txt").fields["etag"].startswith('W/"'), "a strong tag of this second")
        os.remove(fresh)
        curl("-o", path("z1"), url(p, "hello.txt"), "--etag-save", path("tag"))
        check_equal(b"304", curl("-o", path("z2"), "-w", "%{http_code}", "--etag-compare",
                                 path("tag"), url(p, "hello.txt")), "curl's second request")


@served
def head_is_get_without_the_body(p):
    with Peer(p) as c:
        for target in "/hello.txt", "/large.bin", "/list/", "/health", "/status", "/none", "/page":
            get, head = Peer(p), c.asks(target, method="HEAD")
            with get:
                a = get.asks(target)
            for field in ("date", "last-modified"):
                a.fields.pop(field, None), head.fields.pop(field, None)
            check_equal((a.status, a.fields), (head.status, head.fields), "HEAD " + target)
        check_equal(b"HTTP/1.1 200 OK", curl("-I", url(p, "large.bin")).splitlines()[0], "curl -I")


@served
def types_of_content(p):
    with Peer(p) as c:
        for name, want in (("a.html", "text/html; charset=utf-8"), ("a.JPG", "image/jpeg"),
                           ("a.css", "text/css; charset=utf-8"), ("a.svg", "image/svg+xml"),
                           ("a.json", "application/json"), ("a.tar.gz", "application/gzip"),
                           ("a", "application/octet-stream"), ("html", "application/octet-stream"),
                           ("a.xhtml", "application/octet-stream")):
            write("types/" + name, b"x")
            a = c.asks("/types/" + name)
            check_equal((want, "nosniff"),
                        (a.fields["content-type"], a.fields["x-content-type-options"]), name)


# --- names ---

@served
def nothing_outside_the_folder_is_reached(p):
    up = ("..", ".%2e", "%2e%2e", "%2E.", "..%2f", "..%5c", "..\\", "%252e%252e", "....", "..;",
          "%c0%ae%c0%ae", "%e0%80%ae.", "..%00", "%uff0e%uff0e", ". .", "...")
    with Peer(p) as c:
        for dots in up:
            for depth in (1, 2, 8):
                for sep in ("/", "%2f", "\\", "%5c"):
                    for before in ("/", "//", "/page/", "http://x/"):
                        target = before + (dots + sep) * depth + "secret.txt"
                        if " " in target:
                            target = target.replace(" ", "%20")
                        a = c.asks(target)
                        check(a.status in (400, 404) and b"SECRET" not in a.body,
                              "%s: %r" % (target, a))
        for target in ("/..", "/../", "/.", "/./", "/page/..", "/%2e%2e/%2e%2e/etc/passwd",
                       "//etc/passwd", "/" + path("secret.txt"), "/page//index.html",
                       "file:///etc/passwd", "/page/%2e/index.html"):
            check(c.asks(target).status in (400, 404), target)
        if tool("curl"):
            check_equal(b"404", curl("--path-as-is", "-o", os.devnull, "-w", "%{http_code}",
                                     url(p, "../secret.txt")), "curl")
        still_serves(p)


@served
def hidden_and_foreign_names_are_not_there(p):
    names = [".hidden", ".git/config", "CON", "con.txt", "Aux", "nul.tar.gz", "PRN .x", "COM1",
             "lpt9.txt", "COM\u00b9.txt", "conin$", "CONOUT$", "c:", "c:hello.txt",
             "hello.txt::$DATA",
             "a\\b", "hello.txt.", "hello.txt ", "HELLO~1.TXT", "a|b", "a<b", "a*", "a?b", "a\"b"]
    shown = ["con", "console.txt", "com10", "com", "xcon", "nully", "a~", "~a", "a.b.c"]
    with Peer(p) as c:
        for name in names:
            if not WINE and os.name == "posix":
                write("odd/" + name, b"odd")
            quoted = "".join("%%%02x" % b for b in name.encode())
            check_equal(404, c.asks("/odd/" + quoted).status, name)
            check_equal(404, c.asks("/" + quoted).status, name)
        for name in shown[1:]:
            write("odd/" + name, b"shown")
            check_equal(b"shown", c.asks("/odd/" + name).body, name)
        shutil.rmtree(os.path.join(ROOT, "odd"))


@served
def bad_escapes_and_bytes_are_bad_requests(p):
    with Peer(p) as c:
        for target in ("/%", "/%4", "/%zz", "/a%", "/%00", "/hello.txt%00.html", "/a%0d%0aX:%20y",
                       "/%1b", "/%7f", "/%ff", "/%c3", "/%ed%a0%80", "/%c0%af"):
            check_equal(400, c.asks(target).status, target)
        check_equal(b"2", c.asks("/list/%C3%bc.txt").body, "UTF-8")
        check_equal(HELLO, c.asks("http://any.host/hello.txt?x=/../y").body, "a whole URL")
        check_equal(200, c.asks("http://any.host?x").status, "a URL without a path")
        check_equal(414, c.asks("/" + "a" * 1024).status, "target of 1025 bytes")


@served
def links_are_followed_and_other_things_are_not(p):
    if WINE:
        raise Skip("no links under Wine")
    with Peer(p) as c:
        place = os.path.join(ROOT, "links")
        os.mkdir(place)
        os.symlink(path("secret.txt"), os.path.join(place, "out"))
        os.symlink("nowhere", os.path.join(place, "dead"))
        os.symlink("loop", os.path.join(place, "loop"))
        os.mkfifo(os.path.join(place, "fifo"))
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(os.path.join(place, "sock"))
            check_equal(b"SECRET", c.asks("/links/out").body, "as the program's first lines say")
            for name in "dead", "loop", "fifo", "sock", "out/", "out/x":
                check_equal(404, c.asks("/links/" + name).status, name)
            listed = re.findall(rb'href="([^"]*)"', c.asks("/links/").body)
            check_equal([b"../", b"out"], listed, "the list")
        shutil.rmtree(place)


@native
def what_may_not_be_read_is_forbidden():
    if WINE:
        raise Skip("no permissions under Wine")
    more = {}
    if os.geteuid() == 0:  # root may read everything, so the server is somebody else
        more = dict(user=65534, group=65534, extra_groups=[])
        os.chmod(folder, 0o755)
    locked = [write("locked.txt", b"x"), write("no_index/index.html", b"x")]
    for name in locked:
        os.chmod(name, 0)
    try:
        p = server(**more)
    except OSError as e:
        raise Skip("the program cannot be run by others: %s" % e)
    with p, Peer(p) as c:
        for target in "/locked.txt", "/no_index/":
            check_equal(403, c.asks(target).status, target)
        check_equal(HELLO, c.asks("/hello.txt").body, "what may be read")
    for name in locked:
        os.remove(name)


@native
def it_survives_without_descriptors():
    need_proc()
    import resource
    limit = 24

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with server("--requests", 0, preexec_fn=few) as p:
        with contextlib.ExitStack() as stack:
            good = stack.enter_context(Peer(p))
            check_equal(HELLO, good.asks("/hello.txt").body, "before")
            for _ in range(6):  # each keeps files open that it does not read
                stack.enter_context(Peer(p, room=4096)).says(
                    b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 8)
            until(lambda: descriptors(p) == limit, "used all descriptors")
            a = good.asks("/hello.txt")
            check_equal(503, a.status, "status without a descriptor")
            check_equal(b"ok\n", good.asks("/health").body, "what needs none")
        until(lambda: serves(p), "well again")
        still_serves(p)


# --- lists and state ---

@served
def lists_are_chunked_and_lead_to_what_they_name(p):
    with Peer(p) as c:
        a = c.asks("/list/")
        check_equal("chunked", a.fields["transfer-encoding"], "coding")
        links = re.findall(r'<li><a href="([^"]*)">([^<]*)</a>', a.body.decode())
        check_equal({("../", "../"), ("a%20b%25%26%27.txt", "a b%&#38;&#39;.txt"),
                     ("%C3%BC.txt", "\u00fc.txt"), ("sub/", "sub/")}, set(links), "links")
        for link, _ in links:
            if link != "../":
                check_equal(200, c.asks("/list/" + link).status, link)
        check_equal([], re.findall(rb"<li>", c.asks("/empty/").body.replace(b'<li><a href="../">',
                                                                            b"")), "empty list")
        check(b'href="../"' not in c.asks("/").body, "a way up from the top")


@native
def a_long_list_is_sent_as_fast_as_it_is_taken():
    count = 100 if EMULATOR else 500
    place = os.path.join(ROOT, "long")
    os.mkdir(place)
    names = {"%03d%s" % (i, "&" * 240) for i in range(count)}  # each 2 KB in the list
    for name in names:
        open(os.path.join(place, name), "w").close()
    with server() as p, Peer(p, room=65536) as c:
        before = memory_kib(p.pid) if LINUX and not EMULATOR else 0
        c.says("GET /long/ HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)  # nobody reads; what is sent meanwhile stays in buffers of known size
        still_serves(p)
        if before:
            grown = memory_kib(p.pid) - before
            check(grown < 700, "grew by %d KiB for a list of 1 MB" % grown)
        while c.line():
            pass
        chunks = list(c.chunks())
        check(len(chunks) > count // 5, "%d chunks" % len(chunks))
        found = {n.decode().replace("%26", "&") for n in
                 re.findall(rb'<a href="([^"./]+)"', b"".join(chunks))}
        check_equal(names, found, "names")
        check_equal(b"ok\n", c.hears().body, "the request behind it")
        check_equal(1, len(re.findall(b"</ul>", curl("-0", url(p, "long/")))), "without chunks")
        with Peer(p) as d:  # one that leaves in the middle
            d.says("GET /long/ HTTP/1.1\r\nHost: x\r\n\r\n")
            d.s.recv(100)
            d.reset()
        still_serves(p)
    shutil.rmtree(place)


@native
def health_and_status():
    with server() as p, Peer(p) as c:
        check_equal((200, b"ok\n"), (lambda a: (a.status, a.body))(c.asks("/health")), "health")
        check_equal(404, c.asks("/healthy").status, "another path")
        check_equal(405, c.asks("/health", method="DELETE").status, "another method")
        a = c.asks("/status", "Accept: text/html, application/json")
        check_equal(("application/json", "chunked"),
                    (a.fields["content-type"], a.fields["transfer-encoding"]), "JSON")
        state = json.loads(a.body)
        check_equal((4, 2, 2), (state["requests"], state["answers_2xx"], state["answers_4xx"]),
                    "counts")
        check_equal((1, 1), (state["connections"], state["accepted"]), "connections")
        check(state["bytes_in"] > 100 and state["bytes_out"] > 100, repr(state))
        text = dict(line.split() for line in c.asks("/status").body.decode().splitlines())
        check_equal(set(state), set(text), "names as text")
        check_equal("5", text["requests"], "requests")
        check_equal(b"1", curl("--raw", url(p, "status"))[-5:-4].replace(b"0", b"1"), "last chunk")


# --- connections ---

@served
def one_connection_serves_many_requests(p):
    before = status_of(p)["accepted"]
    got = curl("-w", "%{num_connects}\n", *[url(p, "health")] * 5)
    check_equal(b"ok\n1\n" + b"ok\n0\n" * 4, got, "curl")
    c = http.client.HTTPConnection("127.0.0.1", p.port())
    for method, name, status in (("GET", "/large.bin", 200), ("HEAD", "/large.bin", 200),
                                 ("POST", "/x", 405), ("GET", "/none", 404),
                                 ("GET", "/list/", 200), ("GET", "/hello.txt", 200)):
        c.request(method, name, body=b"data" if method == "POST" else None)
        r = c.getresponse()
        body = r.read()
        check_equal(status, r.status, name)
        if (method, name) == ("GET", "/large.bin"):
            check_equal(sha(LARGE_DATA), sha(body), "hash")
    c.close()
    check_equal(3, status_of(p)["accepted"] - before, "connections, with that for the status")


@native
def it_closes_when_asked_and_at_its_limit():
    with server("--requests", 3) as p:
        with Peer(p) as c:
            a = c.asks("/health", "Connection: close")
            check_equal("close", a.fields["connection"], "asked")
            c.ended()
        with Peer(p) as c:
            for i in range(3):
                a = c.asks("/health")
                check_equal("close" if i == 2 else None, a.fields.get("connection"), "Connection")
            c.ended()
        with Peer(p) as c:
            check_equal("close", c.asks("/health", version="1.0").fields["connection"], "HTTP/1.0")
            c.ended()
        with Peer(p) as c:
            a = c.asks("/health", "Connection: keep-alive", version="1.0")
            check_equal("keep-alive", a.fields["connection"], "HTTP/1.0 that asks to stay")
            a = c.asks("/list/", "Connection: keep-alive", version="1.0")
            check("transfer-encoding" not in a.fields, "chunks for HTTP/1.0")
            check(a.body.endswith(b"</ul>\n"), "list")
            c.ended()


@served
def requests_sent_ahead_are_answered_in_order(p):
    wants = [("/hello.txt", HELLO), ("/mid.bin", MID), ("/health", b"ok\n"), ("/none", None),
             ("/list/", None), ("/zero.bin", b""), ("/page/", b"<h1>page</h1>")]

    def hears_all(c):
        for name, want in wants:
            a = c.hears()
            check(want is None or a.body == want, "%s: %r" % (name, a))

    text = "".join("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % name for name, _ in wants).encode()
    with Peer(p) as c:
        send = in_thread(c.s.sendall, text * 40)
        for _ in range(40):
            hears_all(c)
        send()
    with Peer(p) as c:
        for i in range(1, len(text), 40 if WINE else 7):
            c.says(text[:i])
            c.says(text[i:])
            hears_all(c)


@native
def few_files_are_open_for_one_who_asks_ahead():
    with server("--requests", 0) as p, Peer(p, room=4096) as c:
        before = descriptors(p)
        send = in_thread(c.s.sendall, b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 3000)
        until(lambda: descriptors(p) > before, "a file was opened")
        time.sleep(0.3)
        check(descriptors(p) - before <= 6, "%d files open" % (descriptors(p) - before))
        still_serves(p)
        c.s.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(AssertionError, OSError):
            send()
    with server() as p, Peer(p) as c:  # and who ends its side still gets the answers
        c.says(b"GET /mid.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        c.s.shutdown(socket.SHUT_WR)
        for _ in range(10):
            check_equal(MID, c.hears().body, "body")
        c.ended()


@served
def a_body_is_read_and_dropped_before_the_answer(p):
    with Peer(p) as c:
        a = c.asks("/x", "Content-Length: 5", method="POST", body="GET /")
        check_equal((405, "GET, HEAD"), (a.status, a.fields["allow"]), "POST")
        a = c.asks("/hello.txt", "Content-Length: 3", body="abc")
        check_equal((200, HELLO), (a.status, a.body), "GET with a body")
        a = c.asks("/x", "Transfer-Encoding: chunked", method="PUT",
                   body="5;ext=1\r\nhello\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n")
        check_equal(405, a.status, "chunks")
        a = c.asks("/x", "Content-Length: 0", method="POST")
        check_equal(405, a.status, "an empty body")
        big = payload(MIB).decode("latin-1")
        check_equal(405, c.asks("/x", "Content-Length: %d" % MIB, method="POST", body=big).status,
                    "the largest")
        # A body and what follows it, cut anywhere.
        text = (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world"
                b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"b\r\nhello world\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        for i in range(0, len(text), 20 if WINE else 3):
            c.says(text[:i])
            c.says(text[i:])
            check_equal([405, 405, 200], [c.hears().status for _ in range(3)], "cut at %d" % i)
        for b in text:
            c.says(bytes([b]))
        check_equal([405, 405, 200], [c.hears().status for _ in range(3)], "byte by byte")


@served
def who_waits_for_100_gets_it_or_the_refusal(p):
    with Peer(p) as c:
        c.says("GET /hello.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
               "Expect: 100-continue\r\n\r\n")
        check_equal(100, c.hears().status, "first")
        c.says("body")
        check_equal(HELLO, c.hears().body, "then")
        check_equal(b"ok\n", c.asks("/health").body, "and on")
    with Peer(p) as c:  # it is not asked to send what is refused anyway
        a = c.asks("/x", "Content-Length: 99", "Expect: 100-continue", method="PUT")
        check_equal((405, "close"), (a.status, a.fields["connection"]), "PUT")
        c.ended()
    with Peer(p) as c:
        check_equal(417, c.asks("/", "Content-Length: 9", "Expect: miracles").status, "others")
    with Peer(p) as c:
        check_equal(200, c.asks("/", "Expect: 100-continue", version="1.0").status, "HTTP/1.0")
    big = path("upload")
    with open(big, "wb") as f:
        f.write(b"x" * (MIB // 2))
    check_equal(b"405", curl("-o", os.devnull, "-w", "%{http_code}", "-X", "PUT", "-T", big,
                             "-H", "Expect: 100-continue", url(p, "x"), fails=True), "curl")


HOST = b"Host: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
# What is refused, with which status; whatever follows in the same bytes is not answered.
BAD = [
    (400, b"GET /\r\n\r\n"), (400, b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"G@T / HTTP/1.1\r\n" + HOST + b"\r\n"), (400, b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET / HTTP/1.1\r\n\r\n"), (400, b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    (400, b"GET / HTTP/1.1\nHost: x\n\n"), (400, b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + HOST + b"A : b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + HOST + b"A: b\x00c\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + HOST + b": empty\r\n\r\n"),
    (400, b"GET / HTTP/1.1\rHost: x\r\n\r\n"), (400, b"GET /\x1b[2J HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"HTTP/1.1 200 OK\r\n\r\n"), (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    (400, b"\r\n\rX"), (400, b"\x00" * 20), (400, b"GET / HTTX/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET hello.txt HTTP/1.1\r\n" + HOST + b"\r\n"),
    # Request smuggling: two ways to find the end of the body.
    (400, b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
          b"0\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4, 4\r\n\r\nabcd"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +4\r\n\r\nabcd"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x4\r\n\r\nabcd"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length : 4\r\n\r\nabcd"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n"
          b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    (400, b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (400, CHUNKED + b"zz\r\n"),
    (400, CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
    (400, CHUNKED + b"5 \r\nhello\r\n0\r\n"),
    (400, CHUNKED + b"5\r\nhelloX\r\n0\r\n"),
    (400, CHUNKED + b"-1\r\n\r\n"),
    (400, CHUNKED + b""
          b"fffffffffffffffff\r\n"),
    (400, CHUNKED + b"0\r\nX\r\n\r\n"),
    (411, b"POST / HTTP/1.1\r\n" + HOST + b"\r\n"), (411, b"PUT /x HTTP/1.0\r\n\r\n"),
    (413, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1048577\r\n\r\n"),
    (413, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1073741824\r\n\r\n"),
    (413, b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 9223372036854775807\r\n\r\n"),
    (413, CHUNKED + b"40000000\r\n"),
    (413, CHUNKED + b"" +
     (b"8000\r\n" + b"x" * 32768 + b"\r\n") * 33),
    (414, b"GET /" + b"a" * 1024 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    (414, b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    (431, b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 5000 + b"\r\n\r\n"),
    (431, b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 65 + b"\r\n"),
    (431, b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 1000 + b"\r\n"),
    (501, b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n"), (501, b"get / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (505, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"), (505, b"GET / HTTP/0.9\r\n" + HOST + b"\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
]


@served
def bad_requests_are_refused_with_their_status(p):
    for status, text in BAD:
        # Whole, with a request smuggled behind it; then, if it is short, a byte at a time.
        for whole in (True, False):
            if not whole and (len(text) > 200 or WINE):
                continue
            with Peer(p) as c:
                what = "%r, %s" % (text[-90:], "whole" if whole else "byte by byte")
                send = in_thread(send_quietly, c.s, text, whole)
                a = c.hears()
                check(a, "no answer to " + what)
                check_equal((status, "close"), (a.status, a.fields.get("connection")), what)
                c.ended()
                send()
    still_serves(p)
    for method in "POST", "DELETE", "TRACE", "OPTIONS", "PATCH":
        with Peer(p) as c:
            a = c.asks("/", "Content-Length: 0", method=method)
            check_equal((405, "GET, HEAD"), (a.status, a.fields["allow"]), method)
            check_equal(b"ok\n", c.asks("/health").body, "behind " + method)
    with Peer(p) as c:
        check_equal(405, c.asks("x:1", method="CONNECT").status, "CONNECT")
        check_equal(405, c.asks("*", method="OPTIONS").status, "OPTIONS *")


def send_quietly(s, text, whole):
    with contextlib.suppress(OSError):
        if whole:
            s.sendall(text + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        else:
            for b in text:
                s.sendall(bytes([b]))


@native
def the_largest_head_is_taken_and_one_byte_more_is_not():
    for most in (4096, 512):
        with server("--head", most) as p:
            for extra, status in ((0, 200), (1, 431)):
                with Peer(p) as c:
                    head = b"GET /health HTTP/1.1\r\n" + HOST + b"A: %s\r\n\r\n"
                    c.says(head % (b"b" * (most + extra - len(head) + 2)))
                    check_equal(status, c.hears().status, "%d bytes and %d" % (most, extra))


@served
def the_end_in_the_middle_is_no_request(p):
    for text in (b"GET /hello.txt HTTP/1.1\r\nHost: x\r\n", b"G",
                 b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"):
        with Peer(p) as c:
            c.says(text)
            c.s.shutdown(socket.SHUT_WR)
            check_equal(400, c.hears().status, repr(text))
            c.ended()
    with Peer(p) as c:
        c.says("GET /hello.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nshort")
        c.s.shutdown(socket.SHUT_WR)
        c.ended()
    with Peer(p) as c:
        c.s.shutdown(socket.SHUT_WR)
        c.ended()
    still_serves(p)


# --- limits ---

@native
def a_head_that_trickles_in_is_cut_off():
    with server("--head-time", 1) as p, Peer(p) as c:
        check_equal(b"ok\n", c.asks("/health").body, "a request before")
        head = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"b" * 1000
        start = time.monotonic()
        with contextlib.suppress(OSError):
            c.s.settimeout(0.1)
            for b in head:
                c.says(bytes([b]))
                try:
                    if c.s.recv(1, socket.MSG_PEEK):
                        break
                except socket.timeout:
                    pass
        took = time.monotonic() - start
        c.s.settimeout(20)
        c.file = c.s.makefile("rb")
        check_equal(408, c.hears().status, "status")
        c.ended()
        check(0.9 < took < 5, "after %.2f s" % took)
        check_equal(1, status_of(p)["too_slow"], "counted")


@native
def a_slow_body_is_let_through_and_a_stalled_one_is_not():
    with server("--head-time", 0.4) as p:
        with Peer(p) as c:  # 10 KiB in a second: above the least rate
            c.says("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10240\r\n\r\n")
            for _ in range(10):
                c.says(b"x" * 1024)
                time.sleep(0.1)
            check_equal(405, c.hears().status, "slow")
        for kind in "Content-Length: 20480", "Transfer-Encoding: chunked":
            with Peer(p) as c:
                start = time.monotonic()
                c.says("POST / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n1" % kind)
                check_equal(408, c.hears().status, "stalled")
                took = time.monotonic() - start
                check(0.35 < took < 5, "after %.2f s" % took)


@native
def who_is_silent_is_closed_and_who_is_not_stays():
    with server("--idle", 0.7) as p, Peer(p) as busy, Peer(p) as silent:
        start = time.monotonic()
        gone = None
        while time.monotonic() - start < 3.5:
            check_equal(b"ok\n", busy.asks("/health").body, "the active one")
            if gone is None:
                silent.s.settimeout(0.15)
                with contextlib.suppress(socket.timeout):
                    check_equal(b"", silent.s.recv(10), "told the silent one")
                    gone = time.monotonic() - start
            else:
                time.sleep(0.15)
        check(gone and 0.6 < gone < 3.5, "silent one gone after %r" % gone)


@native
def so_many_connections_and_no_more():
    for option in "--max", "--host-max":
        with server(option, 3) as p, contextlib.ExitStack() as stack:
            inside = [stack.enter_context(Peer(p)) for _ in range(3)]
            for c in inside:
                check_equal(b"ok\n", c.asks("/health").body, "inside")
            with Peer(p) as c:
                with contextlib.suppress(ConnectionError):
                    c.says("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    check(c.file.read().startswith(b"HTTP/1.1 503 "), "one too many: no 503")
            p.expect(rb"WARN #0 refused 127\.0\.0\.1:\d+: ", p.err)
            inside[0].__exit__()
            until(lambda: serves(p), "room after one left")


def serves(p):
    try:
        with Peer(p) as c:
            return c.asks("/health").status == 200
    except (OSError, AssertionError):
        return False


@native
def so_many_new_connections_a_minute():
    with server("--connects", 5) as p:
        for i in range(5):
            check(serves(p), "connection %d" % i)
        check(not serves(p), "the sixth was let in")
    with server("--connects", 5) as p, Peer(p) as c:
        for _ in range(20):
            check_equal(200, c.asks("/health").status, "requests on one connection")


@native
def many_half_open_clients_cost_little_and_go():
    count = 20 if EMULATOR else 400
    with server("--head-time", 1.5, "--host-max", 1000) as p, contextlib.ExitStack() as stack:
        still_serves(p)
        before = memory_kib(p.pid) if LINUX and not EMULATOR else 0
        for _ in range(count):
            stack.enter_context(Peer(p)).says("GET / HTTP/1.1\r\nHost: x\r\nA: ")
        still_serves(p)
        if before:
            grown = memory_kib(p.pid) - before
            check(grown < 2 * count + 512, "%d KiB for %d half-open clients" % (grown, count))
        until(lambda: status_of(p)["too_slow"] == count, "cut them all off")


@served
def what_never_ends_takes_no_memory(p):
    def attack(p, begin):
        with Peer(p) as c:
            with contextlib.suppress(OSError):
                c.says(begin)
                for _ in range(64):
                    c.says(b"x" * 65536)
            with contextlib.suppress(ConnectionResetError):
                a = c.hears()
                check(a is None or a.status in (400, 413, 414, 431), repr(a))

    kinds = (b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"GET /", b"", b"\r\n" * 1000 + b"GET /",
             CHUNKED + b"1;a=", CHUNKED + b"0\r\nA: ", CHUNKED + b"ffff\r\n",
             CHUNKED + b"3fffffff\r\n")
    attack(p, kinds[0])
    before = memory_kib(p.pid)
    for begin in kinds * 2:
        attack(p, begin)
    still_serves(p)
    grown = memory_kib(p.pid) - before
    check(grown < 2048, "grew by %d KiB" % grown)


@native
def clients_that_vanish_leave_nothing_behind():
    with server("--host-max", 1000) as p:
        still_serves(p)
        before = descriptors(p) if LINUX and not EMULATOR else 0
        for text in (b"", b"GET / HT",
                     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
                     b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 6,
                     b"GET /list/ HTTP/1.1\r\nHost: x\r\n\r\n" * 50):
            for _ in range(5):
                c = Peer(p)
                c.says(text)
                if text.endswith(b"\r\n\r\n"):
                    c.s.recv(10)
                c.reset()
        still_serves(p)
        if before:
            until(lambda: descriptors(p) <= before, "closed all files and sockets")
        until(lambda: status_of(p)["connections"] == 1, "forgot them")


@native
def a_file_that_shrinks_ends_the_connection_early():
    name = write("shrinks.bin", LARGE_DATA)
    with server("--log") as p, Peer(p, room=65536) as c:
        c.says("GET /shrinks.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        c.s.recv(1000)
        if WINE:
            raise Skip("Wine does not let a file shrink that is open")
        os.truncate(name, LARGE // 2)
        with contextlib.suppress(ConnectionResetError):
            check(len(receive_all(c.s)) <= LARGE // 2, "more than there is")
        p.expect(rb"INFO #\d+ ended: ", p.err)
        still_serves(p)
    os.remove(name)


@native
def mapped_files_are_the_same_bytes():
    with server("--mmap") as p:
        for name, want in (("large.bin", LARGE_DATA), ("mid.bin", MID), ("hello.txt", HELLO),
                           ("zero.bin", b"")):
            check_equal(sha(want), sha(curl(url(p, name))), name)
        check_equal(LARGE_DATA[4097:400000], curl("-r", "4097-399999", url(p, "large.bin")),
                    "range")
        with Peer(p) as c:
            c.says(b"GET /mid.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            for _ in range(50):
                check_equal(MID, c.hears().body, "body")
            c.says(b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
            c.s.recv(1000)
            c.reset()
        still_serves(p)


@native
def the_kernel_sends_the_files():
    if not LINUX or EMULATOR:
        raise Skip("a system call of Linux")
    strace = tool("strace")
    trace = path("trace")
    with Run([strace, "-f", "-o", trace, "-e", "trace=sendfile", PROGRAM, ROOT,
              "127.0.0.1:0"], env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0")) as p:
        try:
            p.port()
        except AssertionError as e:
            raise Skip("strace cannot run here: %s" % e)
        check_equal(sha(LARGE_DATA), sha(curl(url(p, "large.bin"))), "hash")
        check_equal(MID[20:60000], curl("-r", "20-59999", url(p, "mid.bin")), "range")
        with open("/proc/%d/task/%d/children" % (p.pid, p.pid)) as f:
            os.kill(int(f.read().split()[0]), signal.SIGTERM)
        check_equal(0, p.wait(), "exit code")
    with open(trace) as f:
        sent = [int(n) for n in re.findall(r"sendfile\(.*= (\d+)", f.read())]
    check_equal(LARGE + 59980, sum(sent), "bytes that sendfile sent")


# --- the end ---

@native
def it_finishes_what_is_under_way_and_cuts_who_does_not_read():
    need_signals()
    with server("--grace", 2) as p, Peer(p, room=65536) as active, Peer(p, room=65536) as stuck, \
            Peer(p) as quiet, Peer(p) as half:
        port = p.port()
        for c in active, stuck:
            c.says("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            c.s.recv(1, socket.MSG_PEEK)
        half.says("GET /health HTTP/1.1\r\nHo")
        check_equal(b"ok\n", quiet.asks("/health").body, "before")
        start = time.monotonic()
        p.process.send_signal(signal.SIGTERM)
        p.expect(rb"WARN #0 stopping", p.err)
        quiet.ended()
        check(time.monotonic() - start < 1.5, "who has no request is let go at once")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            raise AssertionError("late arrivals are let in")
        except ConnectionRefusedError:
            pass
        half.says("st: x\r\n\r\n")
        a = half.hears()
        check_equal((b"ok\n", "close"), (a.body, a.fields["connection"]), "a request half sent")
        check_equal(sha(LARGE_DATA), sha(active.hears().body), "the answer under way")
        for c in active, half:
            c.s.close()
            c.file.close()
        check_equal(0, p.wait(20), "exit code")
        took = time.monotonic() - start
        check(1.9 < took < 8, "stuck one cut after %.2f s" % took)


@native
def a_second_signal_ends_it_at_once():
    need_signals()
    with server("--grace", 20) as p, Peer(p, room=4096) as c:
        c.says("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        c.s.recv(1, socket.MSG_PEEK)
        p.process.send_signal(signal.SIGINT)
        p.expect(rb"stopping", p.err)
        start = time.monotonic()
        p.process.send_signal(signal.SIGTERM)
        check_equal(0, p.wait(10), "exit code")
        check(time.monotonic() - start < 2, "took %.2f s" % (time.monotonic() - start))


@native
def log_lines_have_time_level_and_connection():
    with server("--log") as p:
        with Peer(p) as c:
            c.asks("/hello.txt?a=%1b[2J%22")
            c.asks("/none", method="HEAD")
        with Peer(p) as c:
            c.says(b"GET /\x1b[2J\n HTTP/1.1\r\n\r\n")
            c.hears()
        p.expect(rb'"- " 400 \d+', p.err)
        lines = bytes(p.err).replace(b"\r\n", b"\n").splitlines()
        for line in lines:
            check(re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (ERROR|WARN|INFO|DEBUG) #\d+ "
                               rb"[ -~]+", line), repr(line))
        check(re.search(rb'INFO #(\d+) 127\.0\.0\.1:\d+ "GET /hello\.txt\?a=%1b\[2J%22" 200 12\n'
                        rb'.*INFO #\1 127\.0\.0\.1:\d+ "HEAD /none" 404 14\n',
                        b"\n".join(lines)), repr(lines))


@native
def a_log_that_nobody_reads_stops_nothing():
    if WINE:
        raise Skip("a write to a full pipe waits on Windows")
    read, full = os.pipe()
    with open(path("out"), "wb+") as out:
        p = subprocess.Popen(EMULATOR + [PROGRAM, "--log", "--requests", "0", ROOT, "127.0.0.1:0"],
                             stdout=out, stderr=full)
        try:
            os.close(full)
            until(lambda: b"\n" in open(path("out"), "rb").read(), "ready")
            port = int(open(path("out"), "rb").read().rsplit(b":", 1)[1])
            with Peer(port) as c:
                for _ in range(30):  # 30 * 50 lines of 90 bytes; a pipe holds 64 KiB
                    c.says(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
                    for _ in range(50):
                        check_equal(b"ok\n", c.hears().body, "answer")
                text = dict(line.split() for line in c.asks("/status").body.decode().splitlines())
                check(int(text["log_dropped"]) > 100, "dropped " + text["log_dropped"])
        finally:
            p.kill()
            p.wait()
            os.close(read)


@native
def it_uses_little_while_nobody_speaks():
    with server() as p, Peer(p):
        used = cpu_seconds(p.pid)[0]
        time.sleep(1)  # the silence is what is measured
        used = cpu_seconds(p.pid)[0] - used
        check(used < 0.03, "%.0f ms of a second" % (1000 * used))


@native
def wrk_sees_no_error():
    wrk = tool("wrk")
    with server("--requests", 1000) as p:
        for name in "hello.txt", "list/":
            out = run([wrk, "-t1", "-c50", "-d1s", url(p, name)], emulate=False)[1].decode()
            requests = int(re.search(r"(\d+) requests in", out).group(1))
            check(requests > 100, out)
            check("Socket errors" not in out and "Non-2xx" not in out, out)
        state = status_of(p)
        check_equal((0, 0), (state["answers_4xx"], state["answers_5xx"]), "errors")


@native
def both_families_are_served():
    need_ipv6()
    with server(address=":0") as p:
        for host in "127.0.0.1", "[::1]":
            check_equal(HELLO, curl("-g", url(p, "hello.txt", host=host)), host)


@fact
def wrong_use_is_said():
    usage = ([], ["--max"], ["--what", ROOT], ["--max", "x", ROOT], ["--max", "-1", ROOT],
             [ROOT, "a", "b"], ["--cert"], [ROOT, "127.0.0.1:0", "--idle", "1s"])
    for words in usage[2:3] if WINE else usage:
        with Run([PROGRAM] + words) as p:
            check_equal(2, p.wait(), "exit code of %r" % (words,))
            check(b"usage: http_server" in p.err, repr(bytes(p.err)))
    for words in ([os.path.join(ROOT, "hello.txt")], [os.path.join(ROOT, "none")],
                  [ROOT, "127.0.0.1:99999"])[:0 if WINE else 3]:
        with Run([PROGRAM] + words) as p:
            check_equal(1, p.wait(), "exit code of %r" % (words,))
            check(p.err.startswith(b"http_server: "), repr(bytes(p.err)))


@native
def a_port_that_is_taken_is_said():
    with server() as p, Run([PROGRAM, ROOT, "127.0.0.1:%d" % p.port()]) as q:
        check_equal(1, q.wait(), "exit code")
        check(b"in use" in q.err, repr(bytes(q.err)))


# --- HTTPS ---

def tls_server(*options, cert=None, **more):
    return server("--cert", cert or certs("good.pem"), *options, **more)


def wrap(s):
    context = ssl.create_default_context(cafile=certs("ca.pem"))
    return context.wrap_socket(s, server_hostname="example.test")


def serial(s):
    return s.getpeercert()["serialNumber"]


@fact
def without_a_library_https_is_refused():
    if not no_tls():
        raise Skip("this program has a TLS library")
    with Run([PROGRAM, "--cert", "x.pem", ROOT, "127.0.0.1:0"]) as p:
        check_equal(1, p.wait(), "exit code")
        check(b"NETIO_TLS_OPENSSL" in p.err, repr(bytes(p.err)))


@native
def curl_gets_files_over_https():
    with tls_server() as p:
        get = ["--cacert", certs("ca.pem")]
        for name, want in (("hello.txt", HELLO), ("large.bin", LARGE_DATA), ("zero.bin", b"")):
            check_equal(sha(want), sha(curl(*get, url(p, name, "https"))), name)
        check_equal(LARGE_DATA[7:90000], curl(*get, "-r", "7-89999", url(p, "large.bin", "https")),
                    "range")
        check(b"a%20b%25" in curl(*get, url(p, "list/", "https")), "list")
        run([tool("curl"), "-sS", url(p, "", "https")], emulate=False)  # no CA: it turns away
        with Peer(p) as c:
            c.says("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            c.ended_badly = receive_all(c.s)
            check(b"HTTP/1.1 200" not in c.ended_badly, "plain text on a TLS port")
        p.expect(rb"WARN #0 refused 127\.0\.0\.1:\d+: ", p.err)
        with Peer(p, wrap) as c:
            for i in range(20):
                check_equal(MID, c.asks("/mid.bin").body, "request %d on one connection" % i)
        out = curl(*get, "-o", os.devnull, "-w", "%{http_version}", "-v", url(p, "health", "https"))
        check_equal(b"1.1", out, "version by ALPN")


@native
def openssl_sees_a_good_server():
    openssl = tool("openssl")
    with tls_server() as p:
        where = [openssl, "s_client", "-connect", "127.0.0.1:%d" % p.port(), "-CAfile",
                 certs("ca.pem"), "-verify_return_error", "-verify_hostname", "example.test"]
        with Run(where + ["-quiet", "-alpn", "http/1.1"], emulate=False) as c:
            c.feed(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            c.expect(rb"HTTP/1\.1 200 OK\r\n.*\r\n\r\nok\n")
        code, out, err = run(where + ["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"], emulate=False)
        check(code != 0, "TLS 1.1 is let in")
        code, out, err = run(where + ["-alpn", "h2"], emulate=False)
        check(code != 0, "a client of HTTP/2 alone is let in")


@native
def what_cannot_be_used_is_said_before_it_listens():
    broken = path("broken.pem")
    with open(broken, "w") as f:
        f.write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for words in (["--cert", path("none.pem")], ["--cert", broken],
                  ["--cert", certs("good.pem"), "--key", certs("rsa.key")],
                  ["--cert", certs("good.crt")]):
        with Run([PROGRAM] + words + [ROOT, "127.0.0.1:0"]) as p:
            check_equal(1, p.wait(), "exit code of %r" % (words,))
            check(re.search(rb"ERROR #0 .+\n", p.err), repr(bytes(p.err)))
            check_equal(b"", bytes(p.out), "output")


def put(name, source):
    """Replace a file in one step."""
    shutil.copyfile(source, name + ".new")
    os.replace(name + ".new", name)


def reload_by(options, reload, kept):
    """A new certificate for new connections; the old one stays for old ones, and if it is bad."""
    site = path("site.pem")
    put(site, certs("good.pem"))
    with tls_server(*options, cert=site) as p, Peer(p, wrap) as old:
        first = serial(old.s)
        check_equal(b"ok\n", old.asks("/health").body, "before")
        put(site, certs("rsa.pem"))
        reload(p)
        p.expect(rb"new certificate", p.err)
        with Peer(p, wrap) as new:
            check(serial(new.s) != first, "still the old certificate")
            second = serial(new.s)
            check_equal(b"ok\n", old.asks("/health").body, "the old session")
            with open(site + ".new", "w") as f:
                f.write("nonsense\n")
            os.replace(site + ".new", site)
            reload(p)
            p.expect(rb"ERROR #0 .+kept the old certificate", p.err)
            with Peer(p, wrap) as third:
                check_equal(second, serial(third.s), "serial after a bad file")
                for c in old, new, third:
                    check_equal(HELLO, c.asks("/hello.txt").body, "after it all")
        check(kept or p.process.poll() is None, "it ended")


@native
def sighup_reads_the_certificate_again():
    need_tls()
    reload_by([], lambda p: p.process.send_signal(signal.SIGHUP), True)


@native
def a_changed_file_is_read_again():
    need_tls()
    reload_by(["--watch", 0.2], lambda p: None, True)


@native
def it_stops_cleanly_over_tls():
    need_tls()
    with tls_server("--grace", 5) as p, Peer(p, wrap) as c, Peer(p, wrap) as quiet:
        c.says("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        line = c.file.readline()
        check_equal(b"HTTP/1.1 200 OK\r\n", line, "status")
        p.process.send_signal(signal.SIGTERM)
        quiet.ended()
        check(c.file.read().endswith(LARGE_DATA[-100000:]), "the answer under way")
        for s in c, quiet:
            s.__exit__()
        check_equal(0, p.wait(), "exit code")


def it_is_the_same_on_windows():
    with server("--log") as p:
        for function in shared:
            try:
                function(p)
            except Skip as e:
                print("    %s skipped: %s" % (function.__name__, e))
        p.expect(rb'\dZ INFO #\d+ 127\.0\.0\.1:\d+ "GET /hello\.txt" 200 12\r?\n', p.err)


if WINE:
    fact(it_is_the_same_on_windows)
main("http_server")
