#!/usr/bin/env python3
"""Drives examples/apps/rpc.c: its server with netcats and Python's sockets, its client against
servers that answer in any order, never, or go away, and its job queue with workers that die."""
import re
import signal
import socket
import struct
import threading
import time

from common import (EMULATOR, WINE, Run, Skip, check, check_equal, fact, in_thread, main,
                    native, openbsd_nc, program, receive_all, tool)

PROGRAM = program("rpc")


def rpc(mode, *words, **more):
    return Run([PROGRAM, mode] + [str(w) for w in words], **more)


def serve(*options, address="127.0.0.1:0"):
    return rpc("serve", *options, address)


def talk(p, data, want):
    """Send lines, and compare the answers with those that should come, in order."""
    with socket.create_connection(("127.0.0.1", p.port())) as s:
        s.settimeout(20)
        s.sendall(data)
        check_equal(want, receive_all(s, len(want)), "answers to %r" % data)
        s.shutdown(socket.SHUT_WR)
        check_equal(b"", receive_all(s), "what followed")


def make_calls(*words, calls=(), timeout=60):
    """Run a client to its end. Returns exit code, lines, counts of the last line, and stderr."""
    with rpc("call", *words) as p:
        p.feed_and_end(b"".join(c.encode() + b"\n" for c in calls))
        code = p.wait(timeout)
        lines = bytes(p.out).decode().replace("\r\n", "\n").splitlines()
        return code, lines[:-1], counts_of(lines[-1]), bytes(p.err)


def counts_of(line):
    return {name: int(number) for number, name in
            re.findall(r"(\d+) (calls|answered|timed|reset|other|wrong|ended|never|links|jobs|done|"
                       r"parked|given)", line)}


def each_ended_once(total, counts):
    check_equal(total, counts["calls"], "calls")
    check_equal(0, counts["ended"], "calls that ended twice")
    check_equal(0, counts["never"], "calls that never ended")
    check_equal(0, counts["wrong"], "wrong answers")
    check_equal(total, counts["answered"] + counts["timed"] + counts["reset"] + counts["other"],
                "sum of the ends")


def expect_count(p, text, count, stream):
    """Wait until the text stands so many times in the output."""
    deadline = time.monotonic() + 30
    with p.changed:
        while stream.count(text) < count:
            check(time.monotonic() < deadline, "less than %d of %r" % (count, text))
            p.changed.wait(0.2)


class Server:
    """A server in Python: `answer(self, s, id, text)` is called for each line, on the connection's
    thread. It can be killed and started again on the same port."""

    def __init__(self, answer, name=""):
        self.answer = answer
        self.name = name
        self.port = 0
        self.lock = threading.Lock()
        self.accepted = self.most = 0
        self.connections = []
        self.start()

    def start(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(100)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def kill(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            connections, self.connections = self.connections, []
        for s in connections:
            try:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def accept(self, listener):
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            s.settimeout(None)
            with self.lock:
                self.accepted += 1
                self.connections.append(s)
                self.most = max(self.most, len(self.connections))
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        try:
            with s.makefile("rb") as f:
                for line in f:
                    number, _, text = line.decode().rstrip("\r\n").partition(":")
                    self.answer(self, s, int(number), text)
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                if s in self.connections:
                    self.connections.remove(s)
                    s.close()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def by_name(server, s, number, text):
    """Answers with its own name, a little later."""
    time.sleep(0.01)
    s.sendall(b"%d:OK:%s\n" % (number, server.name.encode()))


def need_signals():
    if WINE:
        raise Skip("no signals under Wine")


def need_time():
    if WINE:
        raise Skip("runs there take long, and nothing of this depends on the system")


# --- the server ---

@fact
def calls_are_answered():
    with serve() as p:
        talk(p, b"1:ECHO:hello\n2:UPPER:make this\n3:REVERSE:abc\r\n4:ECHO:a:b::c\n5:QUERY 1\n",
             b"1:OK:hello\n2:OK:MAKE THIS\n3:OK:cba\n4:OK:a:b::c\n5:RESULT for QUERY 1\n")
        talk(p, b"6:HELLO\n7:FOO:x\n8:ECHO:\n9:upper:x\n4294967295:REVERSE:\xc3\xbc\n",
             b"6:UNKNOWN COMMAND\n7:ERROR:Unknown command\n8:OK:\n9:ERROR:Unknown command\n"
             b"4294967295:OK:\xbc\xc3\n")


@native
def what_is_no_call_is_dropped():
    bad = [b"", b"hello", b"2:UPPER", b":UPPER:x", b"x:UPPER:x", b"-1:ECHO:x", b"01:ECHO:x",
           b"4294967296:ECHO:x", b" 1:ECHO:x", b"3:ECHO", b"7"]
    with serve() as p:
        talk(p, b"\n".join(bad) + b"\n1:ECHO:still here\n", b"1:OK:still here\n")
        if not WINE:
            check_equal(0, p.stop(), "exit code")
            p.expect(rb"1 answered, %d dropped" % len(bad))


@native
def answers_come_when_they_are_ready():
    with serve() as p:
        talk(p, b"1:AFTER:300:slow\n2:AFTER:100:less\n3:ECHO:now\n4:AFTER:200:some:what\n",
             b"3:OK:now\n2:OK:less\n4:OK:some:what\n1:OK:slow\n")
        talk(p, b"1:AFTER:70000:x\n2:AFTER:-1:x\n3:AFTER:x\n4:AFTER:5\n5:AFTER::x\n",
             b"1:ERROR:not now\n2:ERROR:not now\n3:ERROR:not now\n4:ERROR:not now\n5:OK:x\n")


@fact
def calls_come_in_any_pieces():
    need_time()
    with serve() as p, socket.create_connection(("127.0.0.1", p.port())) as s:
        for byte in b"12:UPPER:in pieces\n":
            s.sendall(bytes([byte]))
        check_equal(b"12:OK:IN PIECES\n", receive_all(s, 16), "answer")


@native
def a_line_that_never_ends_ends_the_client():
    need_time()
    with serve() as p:
        talk(p, b"1:ECHO:" + b"x" * 4000 + b"\n", b"1:OK:" + b"x" * 4000 + b"\n")
        with socket.create_connection(("127.0.0.1", p.port())) as s:
            try:
                s.sendall(b"1:ECHO:" + b"x" * 10000)
                check_equal(b"", receive_all(s), "answer to a line too long")
            except ConnectionError:
                pass
        talk(p, b"1:ECHO:x\n", b"1:OK:x\n")


@fact
def who_does_not_read_is_not_read_either():
    with serve() as p, socket.create_connection(("127.0.0.1", p.port())) as s:
        s.settimeout(0.5)
        line, sent = b"1:ECHO:" + b"x" * 4000 + b"\n", 0
        try:
            while sent < 256 << 20:
                sent += s.send(line * 16)
        except socket.timeout:
            pass
        check(sent < 256 << 20, "it took %d MiB without an answer being read" % (sent >> 20))
        talk(p, b"2:ECHO:others are served\n", b"2:OK:others are served\n")


@native
def binary_messages_have_five_bytes_before_them():
    def message(kind, data):
        return struct.pack(">IB", len(data), kind) + data
    with serve("--binary") as p:
        for kind, reply in (1, 2), (7, 8), (254, 255), (255, 0), (0, 1):
            talk(p, message(kind, b"data"), message(reply, b"data"))
        talk(p, message(1, b"") + message(3, b"\n\0:") + message(1, b"x" * 4096),
             message(2, b"") + message(4, b"\n\0:") + message(2, b"x" * 4096))
        for size in 4096 + 65, 1 << 20, (1 << 32) - 1:
            with socket.create_connection(("127.0.0.1", p.port())) as s:
                try:
                    s.sendall(struct.pack(">IB", size, 1) + b"x" * 100)
                    check_equal(b"", receive_all(s), "answer to %d bytes" % size)
                except ConnectionError:
                    pass
        talk(p, message(1, b"still here"), message(2, b"still here"))


def type_into(command):
    with serve() as p, Run(command + ["127.0.0.1", str(p.port())], emulate=False) as c:
        c.feed(b"2:UPPER:abc\n")
        c.expect(rb"^2:OK:ABC\n$")
        c.feed(b"3:AFTER:100:late\n4:QUERY 7\n")
        c.expect(rb"ABC\n4:RESULT for QUERY 7\n3:OK:late\n$")
        c.end_input()
        check_equal(0, c.wait(), "exit code of %s" % command[0])


@native
def netcat_types_a_call():
    type_into([openbsd_nc(), "-N"])


@native
def ncat_types_a_call():
    need_time()
    type_into([tool("ncat")])


# --- the client ---

@native
def a_client_makes_the_calls_on_its_input():
    with serve() as p:
        code, lines, counts, _ = make_calls(
            p.address(), calls=["UPPER:make this", "REVERSE:a:b", "FOO:x", "QUERY 1", "AFTER:50:x"])
        check_equal(0, code, "exit code")
        check_equal(["AFTER:50:x -> OK:x", "FOO:x -> ERROR:Unknown command",
                     "QUERY 1 -> RESULT for QUERY 1", "REVERSE:a:b -> OK:b:a",
                     "UPPER:make this -> OK:MAKE THIS"],
                    sorted(lines), "results")
        each_ended_once(5, counts)


@fact
def many_calls_are_in_flight_over_few_connections():
    for options in ([], ["--binary"])[:1 if WINE else 2]:
        with serve(*options) as p:
            total = 500 if WINE else 5000 if EMULATOR else 50000
            code, _, counts, _ = make_calls(*options, "--count", total, p.address())
            check_equal(0, code, "exit code")
            check_equal(total, counts["answered"], "answered")
            each_ended_once(total, counts)
            check(counts["links"] <= 5, "%d connections" % counts["links"])


@fact
def ten_workers_make_five_connections_at_most():
    def echo(server, s, number, text):
        s.sendall(b"%d:OK:%s\n" % (number, text[5:].encode()))
    with Server(echo) as server:
        code, _, counts, _ = make_calls("--workers", 10, "--links", 5, "--count", 1000,
                                        server.address)
        check_equal(0, code, "exit code")
        each_ended_once(1000, counts)
        check(1 <= server.most <= 5, "%d connections at once" % server.most)
        check(server.accepted <= 5, "%d connections" % server.accepted)


@native
def answers_in_another_order_reach_the_right_callers():
    need_time()
    held = []

    def answer(server, s, number, text):
        held.append((number, text))
        if len(held) == 3:
            for i in 2, 0, 1:
                s.sendall(b"%d:OK:%s\n" % (held[i][0], held[i][1].encode()))
    with Server(answer) as server:
        code, lines, counts, _ = make_calls("--links", 1, "--workers", 1, server.address,
                                            calls=["one", "two", "three"])
        check_equal(["three -> OK:three", "one -> OK:one", "two -> OK:two"], lines, "results")
        check_equal(0, code, "exit code")


@native
def a_call_without_an_answer_times_out_alone():
    need_time()
    asked = []

    def answer(server, s, number, text):
        asked.append(number)
        if text == "late":  # when its time is over, and then once more, and to nobody
            time.sleep(0.7)
            s.sendall(b"2:OK:too late\n2:OK:too late\n%d:OK:%s\n77777:OK:x\n" % (number, b"late"))
        elif text != "two":
            s.sendall(b"%d:OK:%s\n%d:OK:twice\n" % (number, text.encode(), number))
    with Server(answer) as server:
        start = time.monotonic()
        code, lines, counts, _ = make_calls(
            "--links", 1, "--workers", 1, "--depth", 3, "--timeout", 0.5, server.address,
            calls=["one", "two", "three", "late", "five"])
        check(time.monotonic() - start > 0.5, "the limit")
        results = dict(line.split(" -> ") for line in lines)
        check_equal("OK:one", results["one"], "one")
        check_equal("timed out", results["two"], "two")
        check_equal("OK:three", results["three"], "three")
        check_equal(5, len(lines), "lines")
        check_equal(len(asked), len(set(asked)), "ids")  # no id came again meanwhile
        each_ended_once(5, counts)
        check_equal(1, code, "exit code")


@native
def what_is_no_answer_costs_the_connection():
    need_time()
    def answer(server, s, number, text):
        s.sendall(b"no answer\n" if server.accepted < 3 else b"%d:OK:x\n" % number)
    with Server(answer) as server:
        code, lines, counts, _ = make_calls("--links", 1, "--workers", 1, "--depth", 1,
                                            server.address, calls=["a", "b", "c", "d"])
        check_equal(["a -> connection reset", "b -> connection reset", "c -> OK:x", "d -> OK:x"],
                    [re.sub(r"-> connection reset.*", "-> connection reset", x) for x in lines],
                    "results")
        check_equal(3, server.accepted, "connections")
        each_ended_once(4, counts)


@native
def each_call_ends_once_while_the_server_restarts():
    need_signals()
    total = 10000000  # more than there is time for
    p = serve()
    address = p.address()
    with rpc("call", "--count", total, "--wait", 30, address) as c:
        c.end_input()
        connected = 0
        try:
            for _ in range(5):
                expect_count(c, b"connected to", connected + 1, c.err)
                with socket.create_connection(("127.0.0.1", p.port())) as s:
                    s.settimeout(20)
                    s.sendall(b"1:AFTER:100:x\n")  # so long it serves
                    check_equal(b"1:OK:x\n", receive_all(s, 7), "answer meanwhile")
                p.__exit__()  # killed
                connected = bytes(c.err).count(b"connected to")
                p = serve(address=address)
                p.address()
            check(c.process.poll() is None, "it ended early: %r" % bytes(c.out))
            c.process.send_signal(signal.SIGTERM)
            check_equal(1, c.wait(60), "exit code")
        finally:
            p.__exit__()
        counts = counts_of(bytes(c.out).decode())
        each_ended_once(total, counts)
        check(counts["answered"] > 1000, "answered %r" % counts)
        check(0 < counts["reset"] < 5 * 5 * 16 + 1, "in flight over 5 links, 5 times: %r" % counts)
        check(counts["links"] <= 5, "links %r" % counts)


@native
def the_backup_stands_in_until_the_primary_is_back():
    need_time()
    with Server(by_name, "primary") as primary, Server(by_name, "backup") as backup:
        with rpc("call", "--links", 2, "--workers", 2, "--depth", 2, "--probe", 0.2, "--wait", 20,
                 primary.address + "," + backup.address) as p:
            p.feed_and_end(b"".join(b"call %d\n" % i for i in range(500)))
            p.expect(rb"OK:primary")
            check_equal(0, backup.accepted, "connections to the backup")
            primary.kill()
            p.expect(rb"OK:backup")
            primary.start()
            p.expect(rb"OK:backup.*OK:primary")
            code = p.wait()
            lines = bytes(p.out).decode().splitlines()
            counts = counts_of(lines[-1])
            each_ended_once(500, counts)
            check(counts["reset"] <= 4, "moving cost calls: %r" % counts)
            check_equal("OK:primary", lines[-2].split(" -> ")[1], "the last answer")
            check(backup.most <= 2 and primary.most <= 2, "connections")
            check_equal(1 if counts["reset"] else 0, code, "exit code")


@native
def with_all_servers_down_it_gives_up_once():
    with socket.socket() as s, socket.socket() as t:
        s.bind(("127.0.0.1", 0))  # bound, not listening: refused
        t.bind(("127.0.0.1", 0))
        start = time.monotonic()
        code, lines, counts, err = make_calls(
            "--tries", 2, "--count", 100,
            "127.0.0.1:%d,127.0.0.1:%d" % (s.getsockname()[1], t.getsockname()[1]))
        check_equal(1, code, "exit code")
        each_ended_once(100, counts)
        check_equal(0, counts["answered"], "answered")
        check_equal(1, err.count(b"gave up"), "reports in %r" % err)
        check(b"connection refused" in err, repr(err))
        check(time.monotonic() - start < 8, "those who waited did not hear of it")


@native
def a_server_that_comes_late_is_waited_for():
    need_time()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        with rpc("call", "--wait", 20, "127.0.0.1:%d" % port) as p:
            p.feed_and_end(b"UPPER:abc\n")
            s.close()
            time.sleep(0.5)  # some attempts fail
            with serve(address="127.0.0.1:%d" % port):
                p.expect(rb"UPPER:abc -> OK:ABC")
                check_equal(0, p.wait(), "exit code")


# --- turns ---

@fact
def turns_are_taken():
    need_time()
    with serve("--ack") as p, rpc("turns", p.address()) as c:
        c.feed_and_end(b"one\ntwo\nthree\n")
        check_equal(0, c.wait(), "exit code")
        check_equal(b"one -> ACK: one\ntwo -> ACK: two\nthree -> ACK: three\n",
                    bytes(c.out).replace(b"\r\n", b"\n"), "output")


def listener():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(1)
    s.settimeout(20)
    return s, "127.0.0.1:%d" % s.getsockname()[1]


@native
def nothing_is_said_before_the_acknowledgement():
    need_time()
    s, address = listener()
    with s, rpc("turns", address) as c:
        c.feed_and_end(b"one\ntwo\nthree\n")
        peer, _ = s.accept()
        with peer:
            for text in b"one\n", b"two\n", b"three\n":
                peer.settimeout(20)
                check_equal(text, receive_all(peer, len(text)), "message")
                peer.settimeout(0.15)
                try:
                    check_equal(b"", peer.recv(100), "what came out of turn")
                except socket.timeout:
                    pass
                peer.sendall(b"ACK: " + text)
        check_equal(0, c.wait(), "exit code")


@native
def a_missing_acknowledgement_is_a_timeout():
    s, address = listener()
    with s, rpc("turns", "--timeout", 0.4, address) as c:
        c.feed_and_end(b"one\ntwo\n")
        peer, _ = s.accept()
        with peer:
            check_equal(b"one\n", receive_all(peer, 4), "message")
            start = time.monotonic()
            peer.sendall(b"ACK: on")  # half of one
            check_equal(1, c.wait(), "exit code")
            check(time.monotonic() - start < 10, "took too long")
            check(b"one -> not acknowledged" in c.out, repr(bytes(c.out)))
            check(b"timed out" in c.err, repr(bytes(c.err)))
            check_equal(b"", receive_all(peer), "what followed")


@native
def another_answer_is_no_acknowledgement():
    need_time()
    s, address = listener()
    with s, rpc("turns", address) as c:
        c.feed_and_end(b"one\ntwo\n")
        peer, _ = s.accept()
        with peer:
            peer.sendall(b"NAK: one\n")
            check_equal(1, c.wait(), "exit code")
            check(b"one -> not acknowledged" in c.out, repr(bytes(c.out)))


# --- jobs ---

class Queue:
    """A queue of jobs and its workers."""

    def __init__(self, jobs, workers, *options, may_die=False, ready=False):
        self.jobs = jobs
        self.queue = rpc("queue", *options, "127.0.0.1:0")
        self.queue.feed_and_end(b"".join(j.encode() + b"\n" for j in jobs))
        self.address = self.queue.address()
        self.workers = []
        for _ in range(workers):
            self.hire(may_die, ready)

    def hire(self, may_die, ready):
        options = ["--may-die"] if may_die else []
        w = rpc("work", *options, self.address)
        self.workers.append(w)
        if ready:
            w.expect(rb"connected to", w.err)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.queue.__exit__()
        for w in self.workers:
            w.__exit__()

    def finish(self, code=0):
        """Wait for its end. Returns results by number of the job, and the counts."""
        check_equal(code, self.queue.wait(60), "exit code")
        lines = bytes(self.queue.out).decode().replace("\r\n", "\n").splitlines()[1:]
        results = {}
        for line in lines[:-1]:
            number, rest = line.split(" ", 1)
            job, result = rest.split(" -> ", 1)
            check(int(number) not in results, "job %s counted twice" % number)
            check_equal(self.jobs[int(number) - 1], job, "job")
            results[int(number)] = result
        return results, counts_of(lines[-1])


@fact
def jobs_are_done_by_whoever_comes():
    need_time()
    with Queue(["UPPER:job %d" % i for i in range(1, 51)], 2) as q:
        results, counts = q.finish()
        check_equal({i: "OK:JOB %d" % i for i in range(1, 51)}, results, "results")
        check_equal((50, 50, 0, 0), tuple(counts[k] for k in ("jobs", "done", "parked", "given")),
                    "counts")


@native
def a_hundred_jobs_survive_a_killed_worker():
    with Queue(["AFTER:50:%d" % i for i in range(1, 101)], 4, ready=True) as q:
        if not WINE:  # stopped, it soon has a job that it does not finish
            q.workers[1].process.send_signal(signal.SIGSTOP)
            so_far = bytes(q.queue.out).count(b"\n")
            expect_count(q.queue, b"\n", so_far + 6, q.queue.out)
        q.workers[1].process.kill()
        results, counts = q.finish()
        check_equal({i: "OK:%d" % i for i in range(1, 101)}, results, "results")
        check_equal(100, counts["done"], "done")
        check(WINE or counts["given"] == 1, "%d given again" % counts["given"])


@native
def a_job_that_kills_its_workers_is_parked():
    jobs = ["UPPER:a", "DIE:", "UPPER:b", "UPPER:c", "AFTER:100:d"]
    with Queue(jobs, 4, may_die=True) as q:
        results, counts = q.finish(code=1)
        check(results.pop(2).startswith("parked: connection reset"), "the poison: %r" % results)
        check_equal({1: "OK:A", 3: "OK:B", 4: "OK:C", 5: "OK:d"}, results, "results")
        check_equal((5, 4, 1, 2), tuple(counts[k] for k in ("jobs", "done", "parked", "given")),
                    "counts")
        deadline = time.monotonic() + 20
        while sum(w.process.poll() == 3 for w in q.workers) < 3:
            check(time.monotonic() < deadline, "workers that died of it")
            time.sleep(0.01)


@native
def a_worker_that_is_too_slow_loses_the_job():
    with Queue(["UPPER:a"], 0, "--timeout", 0.4) as q:
        host, port = q.address.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as slow:
            slow.settimeout(20)
            line = receive_all(slow, 10)
            check_equal(b"1:UPPER:a\n", line, "job")
            try:
                check_equal(b"", slow.recv(1), "the end of the slow one")
            except ConnectionError:
                pass
        with socket.create_connection((host, int(port))) as good:
            good.settimeout(20)
            check_equal(b"1:UPPER:a\n", receive_all(good, 10), "job")
            good.sendall(b"9:OK:of another\nnonsense\n1:OK:A\n1:OK:twice\n")
            results, counts = q.finish()
        check_equal({1: "OK:A"}, results, "results")
        check_equal(1, counts["given"], "given again")


@native
def workers_come_back_to_a_new_queue():
    need_time()
    with Queue(["UPPER:a"], 1) as q:
        q.finish()
        with rpc("queue", q.address) as p:
            p.feed_and_end(b"UPPER:b\n")
            p.expect(rb"1 UPPER:b -> OK:B")
            check_equal(0, p.wait(), "exit code")


# --- the end ---

@native
def a_signal_ends_each_mode():
    need_signals()
    with Queue(["UPPER:a"], 0) as q, serve() as p, Server(lambda *_: None) as mute:
        with socket.create_connection(("127.0.0.1", p.port())) as s:
            s.sendall(b"1:AFTER:60000:x\n2:ECHO:x\n")
            check_equal(b"2:OK:x\n", receive_all(s, 7), "answer")
            stopped = in_thread(p.stop)
            check_equal(b"", receive_all(s), "what came of the other")
        check_equal(0, stopped(), "exit code of serve")
        with rpc("work", mute.address) as w:
            w.expect(rb"connected to", w.err)
            check_equal(0, w.stop(signal.SIGINT), "exit code of work")
        mute.accepted = 0
        with rpc("call", "--timeout", 100, mute.address) as c:
            c.feed_and_end(b"a\nb\n")
            while mute.accepted == 0:
                time.sleep(0.01)
            c.process.send_signal(signal.SIGTERM)
            check_equal(1, c.wait(), "exit code of call")
            each_ended_once(2, counts_of(bytes(c.out).decode().splitlines()[-1]))
        check_equal(1, q.queue.stop(), "exit code of queue, with a job left")


@native
def wrong_use_is_said():
    for words in ([], ["serve"], ["dance", "127.0.0.1:0"], ["serve", "--what", "127.0.0.1:0"],
                  ["call", "--links", "0", "127.0.0.1:1"], ["call", "--count"],
                  ["call", "--depth", "none", "127.0.0.1:1"],
                  ["call", "--timeout", "-1", "x:1"])[:2 if WINE else None]:
        with Run([PROGRAM] + words) as p:
            check_equal(2, p.wait(), "exit code of %r" % (words,))
            check(b"usage: rpc" in p.err, repr(bytes(p.err)))
    with rpc("serve", "127.0.0.1:99999") as p:
        check_equal(1, p.wait(), "exit code")
        check(b"127.0.0.1:99999: " in p.err, repr(bytes(p.err)))


main("rpc")
