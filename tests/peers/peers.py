"""What the tests of this folder share: the driver as an object, other programs, waits, the runner.

A test is a unittest method whose name states a fact. `main()` ends with the line "PASS n" or
"FAIL n of m" and the exit code 0, 1, or 77 if nothing could run.
"""
import faulthandler
import os
import random
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_S = 100                      # a test program that hangs says where, and ends
LATE = 4000                        # ms: later than this is wrong, however busy the machine
MIB = 1 << 20
FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


def driver_command():
    """The words that start the driver; it is compiled here if nobody did before."""
    found = subprocess.run(["sh", os.path.join(HERE, "driver.sh")], stdout=subprocess.PIPE,
                           universal_newlines=True)
    if found.returncode != 0:
        print("FAIL the driver does not compile")
        sys.exit(1)
    return shlex.split(found.stdout)


def is_native():
    """Whether the driver is a program of this system, so that its process can be looked into."""
    return not os.environ.get("NETIO_DRIVER")


def under_wine():
    return "wine" in os.environ.get("NETIO_DRIVER", "")


class Reply:
    """One line of the driver: `err` is the error's name, everything else an attribute."""

    def __init__(self, line):
        words = line.split()
        self.line = line
        self.err = words[0] if words else "(nothing)"
        self.pairs = [tuple(w.split("=", 1)) for w in words[1:] if "=" in w]
        for key, value in self.pairs:
            number = re.fullmatch(r"-?\d+", value) and key not in ("hex", "crc", "sent_crc")
            setattr(self, key, int(value) if number else value)

    def all(self, key):
        return [value for k, value in self.pairs if k == key]

    @property
    def bytes(self):
        return bytes.fromhex(getattr(self, "hex", ""))

    @property
    def port(self):
        return int(self.addr.rsplit(":", 1)[1])

    def __repr__(self):
        return self.line


class Driver:
    """A running driver. `do` is one command and its answer; `send` and `reply` split the two, for
    commands that wait while the test does its part."""

    def __init__(self, prefix=(), **popen):
        self.process = subprocess.Popen(list(prefix) + driver_command() + ["-"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, **popen)
        self.buffer = b""

    def send(self, *words):
        self.process.stdin.write((" ".join(str(w) for w in words) + "\n").encode())
        self.process.stdin.flush()

    def reply(self, limit_s=30):
        end = time.monotonic() + limit_s
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise AssertionError("the driver does not answer within %d s" % limit_s)
            got = os.read(self.process.stdout.fileno(), 65536)
            if not got:
                raise AssertionError("the driver ended: %s" % self.process.wait())
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        answer = Reply(line.decode().strip())
        if answer.err == "?":
            raise AssertionError("misused driver: " + answer.line)
        return answer

    def do(self, *words):
        self.send(*words)
        return self.reply()

    def ok(self, *words):
        answer = self.do(*words)
        if answer.err != "OK":
            raise AssertionError("%s: %s" % (" ".join(str(w) for w in words), answer))
        return answer

    def pid(self):
        """Of the driver itself, also below strace."""
        pid = self.process.pid
        while True:
            with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
                children = f.read().split()
            if not children:
                return pid
            pid = int(children[0])

    def end(self):
        """Close its input, wait for its exit; give its exit code."""
        if not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        return code


class Case(unittest.TestCase):
    """A test with a driver, a folder of its own, and things that are closed at the end."""
    longMessage = True

    def setUp(self):
        self.driver = self.start()
        self.do, self.ok = self.driver.do, self.driver.ok

    def start(self, *args, **kwargs):
        driver = Driver(*args, **kwargs)
        # 0, or 1 after a command that failed; else it crashed, or a sanitizer found something.
        self.addCleanup(lambda: self.assertIn(driver.end(), (0, 1)))
        return driver

    def keep(self, thing):
        self.addCleanup(thing.close)
        return thing

    def folder(self):
        path = tempfile.mkdtemp(prefix="netio-")
        self.addCleanup(shutil.rmtree, path, True)
        return path

    def program(self, *words, **popen):
        """Start another program; it is ended with the test. Its output may be read."""
        if shutil.which(words[0]) is None:
            self.skipTest("no " + words[0])
        p = subprocess.Popen([str(w) for w in words], **popen)

        def end():
            if p.poll() is None:
                p.kill()
            p.wait()
            for pipe in (p.stdin, p.stdout, p.stderr):
                if pipe:
                    pipe.close()

        self.addCleanup(end)
        return p

    def check(self, err, answer):
        self.assertEqual(err, answer.err, answer)
        return answer

    def listener(self, family=socket.AF_INET, host="127.0.0.1", backlog=16, **before):
        """A listening socket of Python's, and its address as netio writes it."""
        s = self.keep(socket.socket(family, socket.SOCK_STREAM))
        for name, value in before.items():
            s.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        s.bind((host, 0))
        s.listen(backlog)
        s.settimeout(10)
        return s, text_of(s.getsockname())

    def pair(self, family=socket.AF_INET, host="127.0.0.1", **before):
        """A connection that the driver dialled: Python's end; the driver's is called c."""
        server, where = self.listener(family, host, **before)
        self.ok("connect", "c", where, 5000)
        s = self.keep(server.accept()[0])
        s.settimeout(10)
        return s


def text_of(name):
    """Python's socket address as netio writes it."""
    if isinstance(name, tuple):
        return ("[%s]:%d" if ":" in name[0] else "%s:%d") % name[:2]
    if isinstance(name, bytes):
        name = name.decode()
    return "unix:" + name.replace("\0", "@", 1)


def payload(size, seed=1):
    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "little") if size else b""


def crc(data):
    return "%08x" % (zlib.crc32(data) & 0xffffffff)


def receive(s, size):
    """Exactly so many bytes, or fewer at the peer's end. (With a timeout Python's sockets do not
    block, so MSG_WAITALL would do nothing.)"""
    got = bytearray(size)
    view, have = memoryview(got), 0
    while have < size:
        n = s.recv_into(view[have:])
        if n == 0:
            break
        have += n
    return bytes(got[:have])


def receive_all(s):
    """Everything until the peer's end."""
    pieces = []
    while True:
        got = s.recv(1 << 18)
        if not got:
            return b"".join(pieces)
        pieces.append(got)


def reset(s):
    """Close so that the peer gets a reset."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()


def wait_until(condition, limit_s=5, what="it"):
    """For states of other programs that nothing announces: look again until it is so."""
    end = time.monotonic() + limit_s
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError("%s did not come about within %d s" % (what, limit_s))
        time.sleep(0.005)


def port_in_use(port, kind):
    """Whether somebody listens on this TCP port, or has bound this UDP port."""
    for table in (kind, kind + "6"):
        try:
            with open("/proc/net/" + table) as f:
                lines = f.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            word = line.split()
            if int(word[1].rsplit(":", 1)[1], 16) == port and (kind == "udp" or word[3] == "0A"):
                return True
    return False


def free_port(kind="tcp"):
    """A port that nobody uses now, for programs that cannot say which one they were given."""
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.bind(("::", 0))
    port = s.getsockname()[1]
    s.close()
    return port


def need(*programs):
    """End the whole program without a verdict if one of these is missing."""
    for name in programs:
        if shutil.which(name) is None:
            print("SKIP no " + name)
            sys.exit(77)


def need_native():
    if not sys.platform.startswith("linux") or not is_native():
        print("SKIP looks into a process of Linux")
        sys.exit(77)


class Result(unittest.TextTestResult):
    ran = 0

    def startTest(self, test):
        super().startTest(test)
        self.ran += 1


def main():
    # Not the 1 that a failed command gives.
    os.environ.setdefault("ASAN_OPTIONS", "exitcode=99")
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    program = unittest.main(module="__main__", exit=False, verbosity=1,
                            testRunner=unittest.TextTestRunner(stream=sys.stdout, verbosity=1,
                                                               resultclass=Result))
    result = program.result
    bad = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    for test, reason in result.skipped:
        print("SKIP %s: %s" % (test.id().split(".", 1)[-1], reason))
    if bad:
        print("FAIL %d of %d" % (bad, result.ran))
        sys.exit(1)
    if result.ran == len(result.skipped):
        sys.exit(77)
    print("PASS %d" % (result.ran - len(result.skipped)))
