#!/usr/bin/env python3
"""Drives examples/apps/redis_server.c: by redis-cli and redis-benchmark, by raw sockets, and
command by command beside a real redis-server, which its client asks, too."""
import os
import random
import re
import signal
import socket
import struct
import time

from common import (LINUX, Run, check, check_equal, check_idle, fact, main, memory_kib, native,
                    need_ipv6, path, program, receive_all, run, tool)

PROGRAM = program("redis_server")


def server(*options, **more):
    return Run([PROGRAM] + [str(o) for o in options] + ["127.0.0.1:0"], **more)


def encode(*words):
    out = b"*%d\r\n" % len(words)
    for w in words:
        w = w if isinstance(w, bytes) else str(w).encode()
        out += b"$%d\r\n%s\r\n" % (len(w), w)
    return out


class Error(bytes):
    """An error reply."""


class Client:
    """A connection to a server of ours, or to a path. Replies are bytes, int, None, lists."""

    def __init__(self, where):
        if isinstance(where, str):
            self.s = socket.socket(socket.AF_UNIX)
            self.s.connect(where)
        else:
            self.s = socket.create_connection(("127.0.0.1", where.port()))
        self.s.settimeout(20)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, *words):
        self.s.sendall(encode(*words))

    def more(self):
        data = self.s.recv(1 << 16)
        if not data:
            raise EOFError(self.buffer)
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def reply(self):
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Error(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$" and int(rest) >= 0:
            while len(self.buffer) < int(rest) + 2:
                self.more()
            data, self.buffer = self.buffer[:int(rest)], self.buffer[int(rest) + 2:]
            return data
        if kind == b"*" and int(rest) >= 0:
            return [self.reply() for _ in range(int(rest))]
        check_equal(b"-1", rest, "length in %r" % line)
        return None

    def ask(self, *words):
        self.send(*words)
        return self.reply()

    def asks(self, want, *words):
        check_equal(want, self.ask(*words), " ".join(str(w) for w in words))

    def fails(self, kind, *words):
        got = self.ask(*words)
        check(isinstance(got, Error) and got.split()[0] == kind,
              "%r: want an error %r, got %r" % (words, kind, got))
        return got

    def ended(self):
        try:
            self.more()
        except (EOFError, ConnectionError):
            check_equal(b"", self.buffer, "what came before the end")
            return
        raise AssertionError("not the end, but %r" % self.buffer)

    def info(self, name):
        return int(re.search(rb"(?m)^%s:(\d+)" % name.encode(), self.ask("INFO")).group(1))


class Redis:
    """A redis-server on a socket in a folder, without anything on disk."""

    def __init__(self):
        self.path = path("redis.sock")
        self.p = Run([tool("redis-server"), "--port", "0", "--unixsocket", self.path, "--save", "",
                      "--dir", path("")], emulate=False)

    def __enter__(self):
        self.p.__enter__()
        self.p.expect(rb"ready to accept connections|accept connections at")
        return self

    def __exit__(self, *_):
        self.p.__exit__()


# --- what it answers ---

@fact
def commands_and_their_replies():
    with server() as p, Client(p) as c:
        c.asks(b"PONG", "PING")
        c.asks(b"hello", "ping", "hello")
        c.asks(b"OK", "SET", "a", "1")
        c.asks(b"1", "GET", "a")
        c.asks(None, "GET", "none")
        c.asks(None, "SET", "a", "2", "NX")
        c.asks(None, "SET", "b", "2", "xx")
        c.asks(b"OK", "SET", "b", b"\0\r\n", "nx")
        c.asks([b"1", None, b"\0\r\n"], "MGET", "a", "none", "b")
        c.asks(2, "INCR", "a")
        c.asks(-3, "DECRBY", "a", 5)
        c.asks(4, "APPEND", "a", "55")
        c.asks(4, "STRLEN", "a")
        c.asks(b"OK", "MSET", "x", 1, "y", 2)
        c.asks(2, "DEL", "x", "y", "z")
        c.asks(3, "EXISTS", "a", "a", "b", "z")
        c.asks(3, "LPUSH", "l", "a", "b", "c")
        c.asks(4, "RPUSH", "l", "d")
        c.asks([b"c", b"b", b"a", b"d"], "LRANGE", "l", 0, -1)
        c.asks([b"b", b"a"], "LRANGE", "l", 1, -2)
        c.asks([], "LRANGE", "l", 4, 9)
        c.asks(b"c", "LPOP", "l")
        c.asks(b"d", "RPOP", "l")
        c.asks(2, "LLEN", "l")
        c.asks(3, "DBSIZE")
        check_equal([b"a", b"b", b"l"], sorted(c.ask("KEYS", "*")), "KEYS *")
        c.asks(b"OK", "FLUSHALL")
        c.asks(0, "DBSIZE")
        c.asks([b"maxmemory", b"268435456"], "CONFIG", "GET", "maxmemory")
        c.asks(b"OK", "QUIT")
        c.ended()


@native
def errors_have_their_kind_and_change_nothing():
    with server() as p, Client(p) as c:
        c.asks(1, "RPUSH", "l", "x")
        c.asks(b"OK", "SET", "s", "text")
        c.asks(b"OK", "SET", "top", "9223372036854775807")
        for words in (["GET", "l"], ["INCR", "l"], ["APPEND", "l", "x"], ["STRLEN", "l"],
                      ["LPUSH", "s", "x"], ["LPOP", "s"], ["LLEN", "s"], ["LRANGE", "s", 0, 1]):
            c.fails(b"WRONGTYPE", *words)
        for words in (["INCR", "s"], ["INCR", "top"], ["INCRBY", "top", "x"], ["GET"],
                      ["DECRBY", "s", "-9223372036854775809"], ["GET", "a", "b"], ["NOSUCH"],
                      ["SET", "s", "x", "EX"], ["SET", "s", "x", "EX", 0],
                      ["SET", "s", "x", "PX", -1], ["SET", "s", "x", "NX", "XX"],
                      ["SET", "s", "x", "EX", "x"], ["SELECT", 1],
                      ["SET", "s", "x", "EX", "9223372036854775807"], ["MSET", "a"], [""],
                      ["MSET", "a", 1, "b"], ["EXPIRE", "s", "soon"], ["LRANGE", "l", 0, ""],
                      ["CONFIG", "SET", "maxmemory", 1], ["SUBSCRIBE"], [b"\r\n-OK\r\n\x1b[2J"]):
            got = c.fails(b"ERR", *words)
            check(re.fullmatch(rb"[ -~]+", got), repr(got))
        check_equal([b"l", b"s", b"top"], sorted(c.ask("KEYS", "*")), "keys")
        c.asks(b"text", "GET", "s")
        c.asks([b"x"], "LRANGE", "l", 0, -1)


@native
def inline_commands_are_for_people():
    with server() as p, Client(p) as c:
        c.s.sendall(b"\r\n  SET  key\tvalue \nGET key\r\nPING\r\n")
        check_equal([b"OK", b"value", b"PONG"], [c.reply() for _ in range(3)], "replies")
        c.s.sendall(b"x " * 2000 + b"\r\n")
        check_equal(b"ERR", c.reply().split()[0], "too many words")
        c.asks(b"PONG", "PING")


@fact
def commands_come_in_any_pieces():
    with server() as p, Client(p) as c:
        c.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        text = encode("SET", "k", "v\r\n") + encode("GET", "k") + b"PING x\r\n"
        for i in range(len(text)):
            c.s.sendall(text[i:i + 1])
        check_equal([b"OK", b"v\r\n", b"x"], [c.reply() for _ in range(3)], "replies")
        for cut in range(1, len(text)):
            c.s.sendall(text[:cut])
            c.s.sendall(text[cut:])
            check_equal([b"OK", b"v\r\n", b"x"], [c.reply() for _ in range(3)], "cut at %d" % cut)


@native
def pipelined_commands_are_answered_in_order_by_one_send():
    with server() as p, Client(p) as c:
        c.asks(b"PONG", "PING")
        before = c.info("total_writes")
        for n in range(50):
            c.s.sendall(b"".join(encode("ECHO", n * 100 + i) for i in range(16)))
            for i in range(16):
                check_equal(b"%d" % (n * 100 + i), c.reply(), "reply")
        writes = c.info("total_writes") - before
        check(50 <= writes <= 53, "%d sends for 50 times 16 replies" % writes)


@native
def patterns_choose_keys():
    with server() as p, Client(p) as c:
        keys = ["one", "two", "three", "o*e", "", "a" * 50]
        for k in keys:
            c.asks(b"OK", "SET", k, k)
        for pattern, want in (("*", keys), ("t*", ["two", "three"]),
                              ("*e", ["one", "three", "o*e"]),
                              ("???", ["one", "two", "o*e"]), (r"o\*e", ["o*e"]), ("", [""]),
                              ("o?e", ["one", "o*e"]), ("*o*e*", ["one", "o*e"]), ("none", []),
                              ("*" + "a*" * 25 + "b", []), ("two", ["two"]), (r"two\\", [])):
            check_equal(sorted(w.encode() for w in want), sorted(c.ask("KEYS", pattern)), pattern)


@native
def no_pattern_keeps_it_busy():
    with server() as p, Client(p) as c:
        c.asks(b"OK", "SET", "a" * 500000, "v")
        c.asks(b"OK", "SET", "b", "v")
        start = time.monotonic()
        c.asks([], "KEYS", "*" + "a*" * 1000 + "b")
        c.fails(b"ERR", "KEYS", "*" + "a" * 100000 + "c")
        check(time.monotonic() - start < 5, "%.2f s" % (time.monotonic() - start))
        check_equal([b"b"], c.ask("KEYS", "b*"), "keys")


# --- beside Redis ---

def sorted_if_keys(words, reply):
    return sorted(reply) if words[0] == "KEYS" and isinstance(reply, list) else reply


@native
def redis_says_the_same():
    """Random commands to both. Errors need only be of the same kind."""
    random.seed(20)
    values = ["", "0", "7", "-1", "text", "a\r\nb", "9223372036854775807", "-9223372036854775808",
              "01", "+1", "1.5", "x" * 3000, " 1"]
    shapes = [
        "SET k v", "SET k v NX", "SET k v XX", "SET k v EX 1000", "SET k v KEEPTTL", "GET k",
        "SET k v NX XX", "SET k v EX -1", "SET k v PX 0", "SET k v EX", "DEL k k", "EXISTS k k k",
        "INCR k", "DECR k", "INCRBY k v", "DECRBY k v", "APPEND k v", "STRLEN k", "MSET k v k v",
        "MSET k v k", "MGET k k k", "EXPIRE k 1000", "EXPIRE k 0", "EXPIRE k -1", "EXPIRE k v",
        "TTL k", "PERSIST k", "KEYS k*", "KEYS *", "LPUSH k v v", "RPUSH k v", "LPOP k", "RPOP k",
        "LRANGE k i i", "LLEN k", "DBSIZE", "FLUSHALL", "ECHO v", "PING v", "SELECT 0", "GET",
        "RPUSH k v v v v v", "NOSUCH k", "PUBLISH k v", "UNSUBSCRIBE k"]
    with Redis() as redis, server() as p, Client(redis.path) as theirs, Client(p) as ours:
        for n in range(4000):
            words = []
            for w in random.choice(shapes).split(" "):
                if w == "k":
                    w = "k%d" % random.randrange(6)
                elif w == "v":
                    w = random.choice(values)
                elif w == "i":
                    w = random.randrange(-4, 5)
                words.append(w)
            if words[0] == "FLUSHALL" and random.random() < .9:
                continue
            want = sorted_if_keys(words, theirs.ask(*words))
            got = sorted_if_keys(words, ours.ask(*words))
            if isinstance(want, Error) and isinstance(got, Error):
                want, got = want.split()[0], got.split()[0]
            check_equal(want, got, "command %d, %r" % (n, words))


def call(where, *words):
    code, out, err = run([PROGRAM, "call", where] + [str(w) for w in words])
    return code, out.replace(b"\r\n", b"\n").decode(), err


@native
def the_client_asks_redis():
    with Redis() as redis:
        where = "unix:" + redis.path
        check_equal((0, "OK\n", ""), call(where, "SET", "k", "v 1"), "SET")
        check_equal((0, "v 1\n", ""), call(where, "GET", "k"), "GET")
        check_equal((0, "(nil)\n", ""), call(where, "GET", "none"), "GET none")
        check_equal((0, "(integer) -3\n", ""), call(where, "DECRBY", "n", 3), "DECRBY")
        code, out, _ = call(where, "LPUSH", "k", "v")
        check(code == 1 and out.startswith("(error) WRONGTYPE"), repr(out))
        code, out, _ = call(where, "EVAL", "return {1, {'a\\r\\n', {}, 'b'}, false}", 0)
        check_equal((0, "(array of 3)\n  (integer) 1\n  (array of 3)\n    a\\x0d\\x0a\n"
                        "    (array of 0)\n    b\n  (nil)\n"), (code, out), "EVAL")
        code, out, _ = call(where, "EVAL", "return string.rep('x', 3000000)", 0)
        check_equal((0, "x" * 3000000 + "\n"), (code, out), "a large string")
        code, out, _ = call(where, "COMMAND")  # some ten thousand values
        check(code == 0 and out.count("\n") > 5000, "COMMAND: %d lines" % out.count("\n"))


@fact
def the_client_asks_the_server():
    with server() as p:
        where = p.address()
        check_equal((0, "OK\n", ""), call(where, "SET", "k", "v 1"), "SET")
        check_equal((0, "v 1\n", ""), call(where, "GET", "k"), "GET")
        check_equal(1, call(where, "NOSUCH")[0], "exit code of an error")
    code, _, err = call("127.0.0.1:1", "PING")
    check(code == 1 and "refused" in err, repr(err))


@native
def the_client_refuses_what_is_no_reply():
    with socket.create_server(("127.0.0.1", 0)) as s:
        for text in (b"HTTP/1.1 400\r\n\r\n", b"$5\r\nhelloXX", b"*3000000000\r\n", b"$5\r\nhel",
                     b""):
            with Run([PROGRAM, "call", "127.0.0.1:%d" % s.getsockname()[1], "PING"]) as p:
                c, _ = s.accept()
                with c:
                    receive_all(c, 14)
                    c.sendall(text)
                    c.shutdown(socket.SHUT_WR)
                    check_equal(1, p.wait(), "exit code after %r" % text)
                    check_equal(b"", bytes(p.out), "output after %r" % text)


def cli(p, *words, **more):
    code, out, err = run([tool("redis-cli"), "-p", str(p.port())] + list(words), emulate=False,
                         **more)
    return code, out.decode(), err


@native
def redis_cli_talks():
    with server() as p:
        check_equal((0, "OK\n", ""), cli(p, "set", "k", "a b"), "set")
        check_equal((0, "a b\n", ""), cli(p, "get", "k"), "get")
        check_equal(0, cli(p, "-x", "set", "blob", stdin=bytes(range(256)) * 100)[0], "exit code")
        with Client(p) as c:
            c.asks(bytes(range(256)) * 100, "GET", "blob")
        out = cli(p, stdin=b"ping\nrpush l a b\nlrange l 0 -1\nnosuch\n")[1]
        check(re.match(r"PONG\n2\na\nb\nERR unknown command 'nosuch'", out), repr(out))
        pipe = b"".join(encode("SET", "key:%d" % i, i) for i in range(20000))
        out = cli(p, "--pipe", stdin=pipe)[1]
        check("errors: 0, replies: 20000" in out, repr(out))


@native
def redis_benchmark_is_served():
    with server() as p:
        code, out, err = run([tool("redis-benchmark"), "-p", str(p.port()), "-P", "16", "-q", "-n",
                              "20000", "-r", "1000", "-t",
                              "ping,set,get,incr,lpush,rpush,lpop,rpop,mset,lrange_100"],
                             emulate=False)
        check_equal(0, code, "exit code")
        check("rror" not in err + out.decode() and "ARN" not in err, err)
        rates = re.findall(rb"(\w+)[^\r\n]*: ([\d.]+) requests per second", out)
        check(len(rates) >= 10, "%d results in %r" % (len(rates), out[-300:]))


# --- time ---

@fact
def keys_expire_on_time_and_by_themselves():
    with server() as p, Client(p) as c:
        start = time.monotonic()
        c.asks(b"OK", "SET", "short", "v", "PX", 300)
        c.asks(b"OK", "SET", "long", "v", "EX", 4000000000)  # years: beyond one timer
        c.asks(b"OK", "SET", "kept", "v", "PX", 300)
        c.asks(b"OK", "SET", "anew", "v", "PX", 300)
        c.asks(1, "PERSIST", "kept")
        c.asks(0, "PERSIST", "kept")
        c.asks(1, "EXPIRE", "anew", 1000)
        c.asks(0, "EXPIRE", "none", 1000)
        c.asks(1000, "TTL", "anew")
        c.asks(-1, "TTL", "kept")
        c.asks(-2, "TTL", "none")
        check(0 < c.ask("PTTL", "short") <= 300, "PTTL")
        c.asks(4000000000, "TTL", "long")
        c.asks(3, "EXISTS", "short", "long", "kept")
        while c.ask("DBSIZE") == 4:  # nobody asks for the key itself
            check(time.monotonic() - start < 10, "it does not expire")
            time.sleep(0.005)
        check(time.monotonic() - start >= 0.299, "too early")
        c.asks(None, "GET", "short")
        check_equal(2, c.info("expires"), "keys that will expire")
        c.asks(b"OK", "SET", "anew", "w")  # and with it the time is gone
        c.asks(-1, "TTL", "anew")
        c.asks(1, "EXPIRE", "kept", 0)
        c.asks(0, "EXISTS", "kept")
        c.asks(1, "PEXPIRE", "anew", 50)
        while c.ask("EXISTS", "anew"):
            check(time.monotonic() - start < 20, "it does not expire")
        check_equal(1, c.info("expires"), "keys that will expire")


@native
def the_silent_are_closed_and_subscribers_stay():
    with server("--idle", 0.5) as p:
        with Client(p) as silent, Client(p) as half, Client(p) as news, Client(p) as busy:
            start = time.monotonic()
            news.asks([b"subscribe", b"c", 1], "SUBSCRIBE", "c")
            half.s.sendall(b"*2\r\n$3\r\nGET\r\n")
            while time.monotonic() - start < 1.2:
                busy.asks(b"PONG", "PING")
                time.sleep(0.05)
            silent.ended()
            half.ended()
            busy.asks(1, "PUBLISH", "c", "still here")
            check_equal([b"message", b"c", b"still here"], news.reply(), "news")


# --- publish and subscribe ---

@fact
def what_is_published_arrives_in_order():
    with server() as p, Client(p) as a, Client(p) as b, Client(p) as c:
        a.asks([b"subscribe", b"x", 1], "SUBSCRIBE", "x")
        a.asks([b"subscribe", b"y", 2], "SUBSCRIBE", "y")
        a.asks([b"subscribe", b"y", 2], "SUBSCRIBE", "y")
        b.asks([b"subscribe", b"y", 1], "SUBSCRIBE", "y")
        a.fails(b"ERR", "GET", "k")
        a.asks([b"pong", b""], "PING")
        c.asks(0, "PUBLISH", "z", "nobody")
        for i in range(100):
            c.asks(1, "PUBLISH", "x", i)
            c.asks(2, "PUBLISH", "y", b"\r\n\0")
        for i in range(100):
            check_equal([b"message", b"x", b"%d" % i], a.reply(), "news")
            check_equal([b"message", b"y", b"\r\n\0"], a.reply(), "news")
            check_equal([b"message", b"y", b"\r\n\0"], b.reply(), "news")
        a.asks([b"unsubscribe", b"x", 1], "UNSUBSCRIBE", "x")
        a.asks([b"unsubscribe", b"x", 1], "UNSUBSCRIBE", "x")
        c.asks(0, "PUBLISH", "x", "gone")
        a.asks([b"unsubscribe", b"y", 0], "UNSUBSCRIBE")
        a.asks([b"unsubscribe", None, 0], "UNSUBSCRIBE")
        a.asks(None, "GET", "k")
        b.s.close()
        while c.ask("PUBLISH", "y", "x"):
            pass  # until the server has seen the end
        check_equal(0, c.info("pubsub_channels"), "channels")


@native
def redis_cli_subscribes():
    with server() as p, Client(p) as c:
        with Run([tool("redis-cli"), "-p", str(p.port()), "subscribe", "news"],
                 emulate=False) as sub:
            sub.expect(rb"subscribe\nnews\n1\n")
            c.asks(1, "PUBLISH", "news", "hello")
            sub.expect(rb"message\nnews\nhello\n")
        with Run([PROGRAM, "call", p.address(), "SUBSCRIBE", "news"]) as sub:
            sub.expect(rb"subscribe\r?\n  news\r?\n  \(integer\) 1")
            c.asks(1, "PUBLISH", "news", "hello")
            sub.expect(rb"message\r?\n  news\r?\n  hello\r?\n")


@native
def a_subscriber_that_does_not_read_is_cut():
    with server() as p, Client(p) as slow, Client(p) as good, Client(p) as c:
        slow.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.ask("SUBSCRIBE", "x")
        good.ask("SUBSCRIBE", "x")
        text, count = b"x" * 50000, 2
        for _ in range(2000):
            count = c.ask("PUBLISH", "x", text)
            check_equal([b"message", b"x", text], good.reply(), "what the other one gets")
            if count == 1:
                break
        check_equal(1, count, "listeners at the end")
        p.expect(rb"client \d+ does not read: cut off", p.err)
        c.asks(b"PONG", "PING")


# --- bad clients ---

@fact
def bad_input_is_answered_and_closed():
    bad = (b"*1\r\n+PING\r\n", b"*99999999999\r\n", b"*1\r\n$600000\r\n", b"*1025\r\n", b"*x\r\n",
           b"*1\r\n$-5\r\n", b"*1\r\n$4\r\nPINGxx", b"\x16\x03\x01\x02\x00", b"x" * 20000,
           b"*2\r\n$524288\r\n" + b"x" * 524288 + b"\r\n$524288\r\n")
    with server() as p, Client(p) as good:
        for text in bad:
            with Client(p) as c:
                c.s.sendall(encode("ECHO", "good") + encode("PING") + text)
                check_equal([b"good", b"PONG"], [c.reply(), c.reply()], "before %r" % text[:20])
                got = c.reply()
                check(got.startswith(b"ERR Protocol error: "), repr(got))
                c.ended()
            good.asks(b"PONG", "PING")


@native
def browsers_are_not_obeyed():
    with server() as p, Client(p) as good:
        for text in (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET hacked 1\r\n",
                     b"GET / HTTP/1.1\r\nHost: x\r\n\r\nSET hacked 1\r\n"):
            with Client(p) as c:
                c.s.sendall(text)
                try:
                    receive_all(c.s)
                except ConnectionError:
                    pass
        good.asks(0, "EXISTS", "hacked")


@native
def random_bytes_do_no_harm():
    random.seed(3)
    with server() as p, Client(p) as good:
        for i in range(300):
            text = bytearray(b"".join(encode(*random.choice(
                (("SET", "k", "v"), ("LPUSH", "l", "x"), ("GET", "k"), ("DEL", "l"))))
                for _ in range(5)))
            for _ in range(random.randrange(1, 5)):
                text[random.randrange(len(text))] = random.choice(b"*$+-:0123456789\r\n\0\xffax")
            with Client(p) as c:
                c.s.sendall(text)
                c.s.shutdown(socket.SHUT_WR)
                try:
                    receive_all(c.s)
                except ConnectionError:
                    pass
            good.asks(b"PONG", "PING")


@native
def who_takes_no_replies_gets_no_more_commands_read():
    with server() as p, Client(p) as slow, Client(p) as good:
        value = b"v" * 400000
        good.asks(b"OK", "SET", "big", value)
        before = memory_kib(p.pid) if LINUX else 0
        slow.s.sendall(encode("GET", "big") * 1000)  # 400 MB of replies
        for _ in range(50):
            good.asks(b"PONG", "PING")
        if before:
            grown = memory_kib(p.pid) - before
            check(grown < 8192, "grew by %d KiB" % grown)
        for i in range(30):
            check_equal(value, slow.reply(), "reply %d" % i)  # and none is lost


@fact
def replies_have_a_longest_length():
    with server() as p, Client(p) as c:
        c.asks(b"OK", "SET", "k", b"v" * 500000)
        check_equal(4, len(c.ask("MGET", *["k"] * 4)), "four of them")
        c.fails(b"ERR", "MGET", *["k"] * 5)
        c.asks(b"PONG", "PING")
        c.asks(524288, "APPEND", "k", b"v" * 24288)
        c.fails(b"ERR", "APPEND", "k", b"v")
        c.asks(524288, "STRLEN", "k")


# --- limits ---

@native
def memory_has_a_limit_and_comes_back():
    with server("--memory", 8) as p, Client(p) as c:
        before = c.info("used_memory")
        n, got = 0, b"OK"
        while got == b"OK":
            got = c.ask("SET", "key:%d" % n, b"v" * 10000)
            n += 1
            check(n < 2000, "no limit")
        check(got.startswith(b"OOM "), repr(got))
        check(700 < n < 850, "%d values of 10,000 bytes" % n)
        c.fails(b"OOM", "LPUSH", "l", "x")
        c.fails(b"OOM", "INCR", "n")
        c.fails(b"OOM", "SUBSCRIBE", "x")
        c.asks(b"v" * 10000, "GET", "key:0")
        c.asks(2, "DEL", "key:0", "key:1")
        c.asks(b"OK", "SET", "key:0", "v")
        c.asks(b"OK", "FLUSHALL")
        check_equal(before, c.info("used_memory"), "bytes in use")


@native
def each_kind_of_value_gives_its_memory_back():
    with server() as p, Client(p) as c:
        c.ask("SET", "first", 1)  # makes the table
        before = c.info("used_memory")
        for i in range(3):
            c.ask("SET", "s", "v" * 1000, "EX", 1000)
            c.ask("APPEND", "s", "w" * 100)
            c.ask("SET", "s", "short")
            c.ask("RPUSH", "l", *range(100))
            c.ask("LPOP", "l")
            c.ask("SET", "l", "now a string")
            c.ask("RPUSH", "l2", *range(100))
            for _ in range(100):
                c.ask("RPOP", "l2")
            c.ask("DEL", "s", "l")
        check_equal(before, c.info("used_memory"), "bytes in use")
        with Client(p) as d:
            d.ask("SUBSCRIBE", "a", "b", "a")
            d.ask("UNSUBSCRIBE", "b")
        while c.info("connected_clients") > 1:
            pass
        table = c.info("used_memory") - before  # the channels' table stays
        check(0 <= table < 200, "%d bytes more" % table)


@native
def keys_and_clients_have_limits():
    with server("--keys", 10, "--clients", 3) as p, Client(p) as c:
        for i in range(10):
            c.asks(b"OK", "SET", i, "v")
        c.fails(b"OOM", "SET", "x", "v")
        c.fails(b"OOM", "LPUSH", "x", "v")
        c.fails(b"OOM", "INCR", "x")
        c.fails(b"OOM", "MSET", "x", "v")
        c.asks(b"OK", "SET", 1, "new")
        c.asks(1, "DEL", 2)
        c.asks(1, "INCR", "x")
        with Client(p) as d, Client(p) as e:
            d.asks(b"PONG", "PING")
            e.asks(b"PONG", "PING")
            with Client(p) as f:
                check_equal(b"ERR max number of clients reached", f.reply(), "the fourth")
                f.ended()


@native
def many_keys_are_found_again():
    count = 40000
    with server() as p, Client(p) as c:
        for i in range(0, count, 500):
            c.send("MSET", *[w for k in range(i, i + 500) for w in ("key:%d" % k, k)])
        for i in range(0, count, 500):
            check_equal(b"OK", c.reply(), "MSET")
        c.asks(count, "DBSIZE")
        check_equal(11, len(c.ask("KEYS", "key:777*")), "keys")
        for i in range(0, count, 500):
            c.send("MGET", *["key:%d" % k for k in range(i, i + 500)])
        for i in range(0, count, 500):
            check_equal([b"%d" % k for k in range(i, i + 500)], c.reply(), "MGET")
        for i in range(0, count, 1000):
            c.send("DEL", *["key:%d" % k for k in range(i, i + 1000) if k % 8])
        for i in range(0, count, 1000):
            c.reply()
        c.asks(count // 8, "DBSIZE")
        check_equal(sorted(b"key:%d" % k for k in range(0, count, 8) if str(k).startswith("777")),
                    sorted(c.ask("KEYS", "key:777*")), "KEYS")
        c.asks(b"OK", "FLUSHALL")
        c.asks(None, "GET", "key:0")


# --- the end ---

@native
def it_ends_cleanly():
    for number in signal.SIGTERM, signal.SIGINT:
        with server() as p, Client(p) as c, Client(p) as sub:
            c.asks(b"OK", "SET", "k", "v", "EX", 100)
            c.asks(2, "RPUSH", "l", "a", "b")
            sub.ask("SUBSCRIBE", "x")
            p.process.send_signal(number)
            c.ended()
            sub.ended()
            c.s.close()
            sub.s.close()
            check_equal(0, p.wait(), "exit code")
            check_equal(b"", bytes(p.err), "what it said")


@native
def a_client_that_vanishes_leaves_nothing():
    with server() as p, Client(p) as c:
        before = c.info("used_memory")
        for _ in range(20):
            d = Client(p)
            d.ask("SUBSCRIBE", "x", "y")
            d.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            d.s.close()
        while c.info("connected_clients") > 1:
            pass
        check_equal(0, c.info("pubsub_channels"), "channels")
        check(c.info("used_memory") - before < 200, "memory")


@native
def it_uses_nothing_while_nobody_asks():
    with server() as p, Client(p) as c:
        c.asks(b"OK", "SET", "k", "v", "EX", 100)
        check_idle(p.pid, 1.0)


@native
def both_families_are_served():
    need_ipv6()
    with Run([PROGRAM, ":0"]) as p:
        with socket.create_connection(("::1", p.port())) as s, Client(p) as c:
            s.sendall(b"SET k six\r\n")
            check_equal(b"+OK\r\n", receive_all(s, 5), "over IPv6")
            c.asks(b"six", "GET", "k")


@native
def wrong_use_is_said():
    for words in (("--memory",), ("--what", "1"), ("--keys", "none"), ("--idle", "-1"),
                  ("--keys", "1e12")):
        code, _, err = run([PROGRAM] + list(words))
        check_equal(2, code, "exit code of %r" % (words,))
        check("usage: redis_server" in err, repr(err))
    code, _, err = run([PROGRAM, "127.0.0.1:99999"])
    check(code == 1 and "127.0.0.1:99999: " in err, repr(err))


main("redis_server")
