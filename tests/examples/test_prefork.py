#!/usr/bin/env python3
"""Drives examples/apps/prefork.c: its clients while it restarts and ends, its processes from
outside, and a worker by itself, whose orders come from here. curl is a witness."""
import array
import os
import pwd
import re
import shutil
import signal
import socket
import threading
import time

from common import (EMULATOR, LINUX, Run, Skip, check, check_equal, check_idle, fact, folder,
                    in_thread, main, path, program, run, tool)

PING, STATUS, BUSY, LISTENER, ERROR, SHUTDOWN = b"\1", b"\2", b"\3", b"\x10", b"\xee", b"\xff"


def app(name):
    """An application: programs of others lie in examples/, these in examples/apps/."""
    if os.environ.get("NETIO_BUILD"):
        return program(name)
    os.mkdir(path("apps"))
    return program("apps/" + name)


PROGRAM = app("prefork")


def need_posix():
    if EMULATOR:
        raise Skip("workers are for POSIX systems")


def need_proc():
    need_posix()
    if not LINUX:
        raise Skip("processes are looked at in Linux's /proc")


class Supervisor(Run):
    def __init__(self, *words, start=PROGRAM, ready=True, **more):
        need_posix()
        super().__init__([start] + list(words or ["--workers", "4", "127.0.0.1:0"]), **more)
        if ready:
            self.workers(int(words[1]) if len(words) > 1 else 4)

    def workers(self, count):
        """Wait until so many have been ready in all; the pids of the last of them."""
        self.expect(rb"(worker \d+ is ready\n.*?){%d}" % count)
        return [int(p) for p in re.findall(rb"worker (\d+) is ready\n", bytes(self.out))]

    def restart(self):
        done = bytes(self.out).count(b"\nrestarted\n")
        self.process.send_signal(signal.SIGHUP)
        self.expect(rb"(\nrestarted\n.*?){%d}" % (done + 1))


def connect(port):
    s = socket.create_connection(("127.0.0.1", port))
    s.settimeout(20)
    return s


def read_answer(s):
    """The whole answer; the pid in it."""
    data = b""
    while True:
        more = s.recv(4096)
        if not more:
            break
        data += more
    got = re.fullmatch(rb"HTTP/1\.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: (\d+)\r\n"
                       rb"Connection: close\r\n\r\n(pid (\d+)\n)", data)
    check(got and int(got.group(1)) == len(got.group(2)), "answer %r" % data)
    return int(got.group(3))


def ask(port):
    with connect(port) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return read_answer(s)


def children(pid):
    """Of a process: pid and state of each child."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as f:
                    fields = f.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found[int(name)] = fields[0]
    return found


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def check_children(pid, want):
    """Those are its children: the others end, and are waited for, within a moment."""
    end = time.monotonic() + 10
    while set(children(pid)) != set(want) and time.monotonic() < end:
        time.sleep(0.02)
    check_equal(set(want), set(children(pid)), "processes of the supervisor")


def gone(pids, seconds=10):
    end = time.monotonic() + seconds
    while any(alive(p) for p in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(p) for p in pids)


@fact
def it_needs_posix():
    if not EMULATOR:
        raise Skip("this is for systems without fork")
    code, _, err = run([PROGRAM])
    check_equal(1, code, "exit code")
    check("fork" in err and "NETIO_ENOTSUP" in err, err)


@fact
def a_worker_answers():
    with Supervisor() as p:
        port = p.port()
        workers = p.workers(4)
        check_equal(4, len(set(workers)), "workers")
        for _ in range(20):
            check(ask(port) in workers, "not by a worker")


@fact
def two_clients_have_two_processes():
    with Supervisor() as p:
        port = p.port()
        slow = [connect(port) for _ in range(3)]
        for s in slow:
            s.sendall(b"GET / HTTP/1.0\r\n")
        p.process.send_signal(signal.SIGUSR1)
        while len(re.findall(rb" is busy\n", bytes(p.out))) < 3:  # all three are served by now
            p.process.send_signal(signal.SIGUSR1)
            time.sleep(0.05)
            del p.out[:p.out.rfind(b"is ready\n")]
        pids = [ask(port)]  # the fourth worker is free
        for s in slow:
            s.sendall(b"\r\n")
            pids.append(read_answer(s))
            s.close()
        check_equal(4, len(set(pids)), "pids: %r" % pids)


@fact
def more_clients_than_workers_wait_their_turn():
    with Supervisor("--workers", "2", "127.0.0.1:0") as p:
        port = p.port()
        joins = [in_thread(ask, port) for _ in range(50)]
        pids = {join() for join in joins}
        check(1 <= len(pids) <= 2, "pids: %r" % pids)


class Load:
    """Threads that ask one after another, and count what fails."""

    def __init__(self, port, threads=4):
        self.port, self.stop, self.pids, self.failed = port, False, [], []
        self.threads = [threading.Thread(target=self.body, daemon=True) for _ in range(threads)]
        for t in self.threads:
            t.start()

    def body(self):
        while not self.stop:
            try:
                self.pids.append(ask(self.port))
            except Exception as e:
                self.failed.append(repr(e))

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join(30)


@fact
def a_live_restart_fails_no_request():
    with Supervisor() as p:
        port = p.port()
        before = set(p.workers(4))
        load = Load(port)
        for _ in range(5):
            count = len(load.pids)
            while len(load.pids) < count + 20:
                time.sleep(0.01)
            p.restart()
        load.end()
        check_equal([], load.failed, "failed of %d requests" % len(load.pids))
        check(len(load.pids) > 100, "only %d requests" % len(load.pids))
        latest = set(p.workers(24)[-4:])
        check(not latest & before, "workers stayed")
        check({ask(port) for _ in range(8)} <= latest, "old ones still answer")
        if LINUX:
            check_children(p.pid, latest)


@fact
def curl_does_not_notice_a_restart():
    need_posix()
    curl = tool("curl")
    with Supervisor() as p:
        url = "http://127.0.0.1:%d/" % p.port()
        script = ("n=0; while [ $n -lt 40 ]; do %s -sSf -m 10 %s >>%s || echo failed; "
                  "n=$((n+1)); done")
        with Run(["sh", "-c", script % (curl, url, path("curl.out"))], emulate=False) as c:
            while c.process.poll() is None:
                p.restart()
            check_equal((0, b"", b""), (c.wait(), bytes(c.out), bytes(c.err)), "curl")
        with open(path("curl.out")) as f:
            check_equal(40, len(f.read().splitlines()), "answers")


@fact
def an_old_worker_finishes_its_client():
    with Supervisor("--workers", "1", "127.0.0.1:0") as p:
        port = p.port()
        [old] = p.workers(1)
        with connect(port) as s:
            s.sendall(b"GET / HTTP/1.0\r\n")
            while b"is busy" not in p.out:
                p.process.send_signal(signal.SIGUSR1)
                time.sleep(0.05)
            p.restart()
            new = ask(port)
            check(new != old, "the old one took another client")
            s.sendall(b"\r\n")
            check_equal(old, read_answer(s), "pid")
        if LINUX:
            check(gone([old]), "it lives on")


@fact
def if_the_new_program_does_not_start_the_old_one_stays():
    need_posix()
    copy = path("replaced")
    shutil.copy(PROGRAM, copy)
    with Supervisor("--workers", "2", "127.0.0.1:0", start=copy) as p:
        port = p.port()
        before = set(p.workers(2))
        for text in ("#!/bin/sh\nexit 3\n", "not a program at all\0\n"):
            with open(copy + ".new", "w") as f:
                f.write(text)
            os.chmod(copy + ".new", 0o755)
            os.rename(copy + ".new", copy)
            load = Load(port, 2)
            done = bytes(p.out).count(b"restart failed")
            p.process.send_signal(signal.SIGHUP)
            p.expect(rb"(restart failed; the old workers go on\n.*?){%d}" % (done + 1))
            load.end()
            check_equal([], load.failed, "failed requests")
            check(set(load.pids) <= before and load.pids, "pids %r of %r" % (load.pids, before))
        shutil.copy(PROGRAM, copy + ".new")
        os.rename(copy + ".new", copy)
        p.restart()
        check(ask(port) not in before, "not restarted")


@fact
def a_worker_that_dies_is_replaced():
    need_proc()
    with Supervisor() as p:
        port = p.port()
        workers = p.workers(4)
        for victim in workers[:3]:
            os.kill(victim, signal.SIGKILL)
        p.expect(rb"(died \(signal 9\).*){3}")
        new = set(p.workers(7)[4:])
        check_children(p.pid, {workers[3]} | new)
        check(ask(port) in {workers[3]} | new, "not by a worker")
        check("Z" not in children(p.pid).values(), "zombies: %r" % children(p.pid))


@fact
def a_worker_that_hangs_is_replaced():
    need_proc()
    with Supervisor("--workers", "1", "127.0.0.1:0") as p:
        port = p.port()
        [old] = p.workers(1)
        os.kill(old, signal.SIGSTOP)
        p.expect(b"worker %d does not answer: killed\n" % old)
        new = p.workers(2)[1]
        check_equal(new, ask(port), "pid")


@fact
def a_client_that_is_silent_is_let_go():
    with Supervisor("--workers", "1", "127.0.0.1:0") as p:
        port = p.port()
        with connect(port) as s:
            start = time.monotonic()
            check_equal(b"", s.recv(100), "bytes")
            check(3 <= time.monotonic() - start < 15, "after %.1f s" % (time.monotonic() - start))
            ask(port)


@fact
def requests_that_are_too_long_or_reset_hurt_nobody():
    with Supervisor("--workers", "2", "127.0.0.1:0") as p:
        port = p.port()
        for i in range(20):
            s = connect(port)
            if i % 2:
                s.sendall(b"x" * 5000)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            s.close()
        with connect(port) as s:
            try:
                s.sendall(b"GET /" + b"x" * 10000)
                check_equal(b"", s.recv(100), "answer to a head without end")
            except ConnectionResetError:
                pass
        for _ in range(4):
            ask(port)
        check(b"died" not in p.out, bytes(p.out))


@fact
def it_ends_cleanly_and_leaves_no_process():
    need_proc()
    for number in (signal.SIGTERM, signal.SIGINT):
        with Supervisor() as p:
            port = p.port()
            workers = p.workers(4)
            ask(port)
            check_equal(0, p.stop(number), "exit code")
            check(not any(alive(w) for w in workers), "workers live on")
            check_equal(b"", bytes(p.err), "stderr")
            check(p.out.endswith(b"ended\n"), bytes(p.out))
            try:
                connect(port).close()
                raise AssertionError("somebody listens still")
            except ConnectionRefusedError:
                pass


def check_end_with_client(kill):
    with Supervisor("--workers", "2", "127.0.0.1:0", start_new_session=True) as p:
        port = p.port()
        with connect(port) as s:
            s.sendall(b"GET / HTTP/1.0\r\n")
            while b"is busy" not in p.out:
                p.process.send_signal(signal.SIGUSR1)
                time.sleep(0.05)
            kill(p)
            time.sleep(0.2)  # it would have ended by then, if it did not wait
            check(p.process.poll() is None, "it did not wait for the client")
            s.sendall(b"\r\n")
            read_answer(s)
        check_equal(0, p.wait(), "exit code")
        check(b"died" not in p.out, bytes(p.out))


@fact
def a_client_under_way_is_finished_first():
    check_end_with_client(lambda p: p.process.send_signal(signal.SIGTERM))


@fact
def signals_to_all_processes_are_as_good():
    need_posix()
    check_end_with_client(lambda p: os.killpg(p.pid, signal.SIGTERM))
    check_end_with_client(lambda p: os.killpg(p.pid, signal.SIGINT))
    with Supervisor("--workers", "2", "127.0.0.1:0", start_new_session=True) as p:
        port = p.port()
        before = p.workers(2)
        os.killpg(p.pid, signal.SIGHUP)
        p.expect(b"\nrestarted\n")
        check(ask(port) not in before, "not restarted")
        check(b"died" not in p.out, bytes(p.out))


@fact
def workers_end_with_their_supervisor():
    need_proc()
    with Supervisor() as p:
        workers = p.workers(4)
        p.process.kill()
        p.process.wait()
        check(gone(workers), "workers live on")


@fact
def workers_inherit_what_they_are_handed_and_no_more():
    need_proc()
    with Supervisor("--workers", "3", "127.0.0.1:0") as p:
        p.restart()
        for pid in p.workers(6)[3:]:
            kinds = []
            for fd in os.listdir("/proc/%d/fd" % pid):
                if int(fd) > 2:
                    kinds.append(os.readlink("/proc/%d/fd/%s" % (pid, fd)).split(":")[0])
            # The pair's end and the listener; the rest is the worker's own poller.
            check_equal(2, kinds.count("socket"), "sockets of %r" % kinds)
            check(set(kinds) <= {"socket", "anon_inode"} and len(kinds) <= 4, "has %r" % kinds)
        end = time.monotonic() + 10  # for the old workers to be gone, and their pairs with them
        count = 0
        while count != 4 and time.monotonic() < end:
            time.sleep(0.05)
            try:
                names = [os.readlink("/proc/%d/fd/%s" % (p.pid, fd))
                         for fd in os.listdir("/proc/%d/fd" % p.pid)]
            except FileNotFoundError:
                continue  # one was closed between the two
            count = len([name for name in names if name.startswith("socket:")])
        check_equal(4, count, "sockets of the supervisor: %r" % names)


class Worker(Run):
    """One worker, whose supervisor is here."""

    def __init__(self):
        need_posix()
        self.control, theirs = socket.socketpair()
        self.control.settimeout(10)
        super().__init__([PROGRAM, "--worker", str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()

    def __exit__(self, *_):
        self.control.close()
        super().__exit__()

    def hand(self, byte, *sockets):
        fds = array.array("i", [s.fileno() for s in sockets])
        self.control.sendmsg([byte], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])

    def order(self, byte):
        self.control.sendall(byte)
        return self.control.recv(1)

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid)) if LINUX else 0


def listening():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen()
    return s, s.getsockname()[1]


@fact
def orders_and_their_answers():
    listener, port = listening()
    with listener, Worker() as w:
        w.hand(LISTENER, listener)
        check_equal(LISTENER, w.control.recv(1), "ready")
        check_equal(PING, w.order(PING), "ping")
        check_equal(STATUS, w.order(STATUS), "status of a free one")
        with connect(port) as s:
            s.sendall(b"GET / HTTP/1.0\r\n")
            while w.order(STATUS) != BUSY:
                time.sleep(0.01)
            check_equal(PING, w.order(PING), "ping of a busy one")
            for byte in (b"\0", b"\4", b"\x7f", LISTENER, ERROR):
                check_equal(ERROR, w.order(byte), "answer to %r" % byte)
            check_equal(SHUTDOWN, w.order(SHUTDOWN), "shutdown")
            check_equal(PING, w.order(PING), "ping of one that finishes")
            s.sendall(b"\r\n")
            check_equal(w.pid, read_answer(s), "pid")
        check_equal(0, w.wait(), "exit code")


@fact
def shutdown_of_a_free_worker():
    listener, _ = listening()
    with listener, Worker() as w:
        w.hand(LISTENER, listener)
        check_equal(LISTENER, w.control.recv(1), "ready")
        check_equal(SHUTDOWN, w.order(SHUTDOWN), "shutdown")
        check_equal(0, w.wait(), "exit code")


@fact
def unasked_descriptors_are_closed():
    listener, port = listening()
    with listener, Worker() as w:
        w.hand(LISTENER, listener)
        check_equal(LISTENER, w.control.recv(1), "ready")
        before = w.descriptors()
        for _ in range(10):
            w.hand(PING, *[listener] * 20)
        check_equal(PING, w.order(PING), "ping afterwards")
        check_equal(before, w.descriptors(), "descriptors")
        ask(port)


@fact
def a_wrong_beginning_is_refused():
    listener, _ = listening()
    with listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for byte, handed in ((PING, [listener]), (LISTENER, []), (LISTENER, [other]),
                             (LISTENER, [listener, listener])):
            with Worker() as w:
                w.hand(byte, *handed)
                check_equal(1, w.wait(), "exit code of %r with %d" % (byte, len(handed)))
                check(b"prefork: worker: " in w.err, bytes(w.err))
    with Worker() as w:
        w.control.close()
        check_equal(1, w.wait(), "exit code without a supervisor")


@fact
def the_end_of_the_supervisor_is_noticed():
    listener, port = listening()
    with listener, Worker() as w:
        w.hand(LISTENER, listener)
        check_equal(LISTENER, w.control.recv(1), "ready")
        w.control.close()
        check_equal(0, w.wait(), "exit code")


@fact
def without_processes_it_waits_for_better_times():
    need_proc()
    if os.geteuid() != 0:
        raise Skip("only root can become somebody with a limit of processes")
    import resource
    try:
        user = pwd.getpwnam("nobody")
    except KeyError as e:
        raise Skip(str(e))
    os.chmod(folder, 0o755)
    copy = path("for-all")
    shutil.copy(PROGRAM, copy)
    os.chmod(copy, 0o755)

    def become():
        os.setgroups([])
        os.setresgid(*[user.pw_gid] * 3)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        os.setresuid(*[user.pw_uid] * 3)
    with Supervisor("--workers", "2", "127.0.0.1:0", start=copy, ready=False, preexec_fn=become,
                    env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0")) as p:  # starts one, too
        p.expect(b"prefork: new worker: ", p.err)
        check_equal(0, p.stop(), "exit code")


@fact
def a_program_that_never_starts_is_given_up():
    need_posix()
    code, out, err = run(["/nonexistent/prefork", "127.0.0.1:0"], executable=PROGRAM)
    check_equal(1, code, "exit code (%r %s)" % (out, err))
    check("the workers do not start" in err, err)


@fact
def unix_sockets_are_listened_on_too():
    need_posix()
    name = path("p.sock")
    with Supervisor("--workers", "2", "unix:" + name) as p:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(name)
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            check(read_answer(s) in p.workers(2), "pid")
        check_equal(0, p.stop(), "exit code")
        check(not os.path.exists(name), "the file stays")


@fact
def idle_costs_next_to_nothing():
    need_posix()
    with Supervisor() as p:
        check_idle(p.workers(4)[0], 1)


@fact
def what_is_wrong_is_said():
    need_posix()
    for words in (["--workers", "0"], ["--workers", "65"], ["a", "b"], ["--help"]):
        code, _, err = run([PROGRAM] + words)
        check_equal(2, code, "exit code of %r" % words)
        check("usage" in err, err)
    with Supervisor("--workers", "1", "127.0.0.1:0") as p:
        code, _, err = run([PROGRAM, "127.0.0.1:%d" % p.port()])
        check_equal((1, True), (code, "address in use" in err), err)


main("prefork")
