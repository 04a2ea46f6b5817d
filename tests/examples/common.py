"""What the drivers of the examples share: finding or building a program, running it, the report.

A driver is a file of functions under @fact or @native, whose names are what they prove. Each either
returns (it passed), raises Skip with the reason, or raises anything else (it failed). The last line
is "PASS n" or "FAIL n of m", the exit code 0 or 1; if everything was skipped the last line is a
reason and the exit code 77. Arguments: parts of names to run alone.

Environment:
    NETIO_BUILD     folder with the programs; without it they are compiled by $CC or cc
    NETIO_SOURCE    folder with netio.h and examples/; default: where this file comes from
    NETIO_EMULATOR  runs the programs, for example "wine"
    NETIO_TLS       "none" if the programs were built without a TLS library
    NETIO_TEST_CERTS  folder where tests/tls/certs.sh put certificates; without it they are made
"""
import atexit
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

SOURCE = os.environ.get("NETIO_SOURCE") or os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
EMULATOR = shlex.split(os.environ.get("NETIO_EMULATOR", ""))
WINE = bool(EMULATOR) and "wine" in os.path.basename(EMULATOR[0])
LINUX = sys.platform.startswith("linux")
PATIENCE = 30  # seconds after which something that should have come counts as lost

folder = tempfile.mkdtemp(prefix="netio-ex-")  # short: socket paths hold about 100 bytes
atexit.register(shutil.rmtree, folder, True)


facts = []


def fact(function):
    """What main() runs, in this order."""
    facts.append(function)
    return function


class Skip(Exception):
    """This cannot run here; the text says what is missing."""


def native(function):
    """A fact that says nothing about another system. Under Wine each start of a program takes a
    second, so there it is skipped."""
    def body():
        if WINE:
            raise Skip("shown natively; nothing of it is the system's")
        function()
    body.__name__ = function.__name__
    return fact(body)


def check(condition, message="check failed"):
    if not condition:
        raise AssertionError(message)


def check_equal(want, got, what="value"):
    if want != got:
        def short(value):
            text = repr(value)
            return text if len(text) < 200 else text[:200] + "..."
        raise AssertionError("%s: want %s, got %s" % (what, short(want), short(got)))


def program(name):
    """Path of an example's program: built before, or compiled now as its first lines say."""
    build = os.environ.get("NETIO_BUILD")
    if build:
        for path in (os.path.join(build, name), os.path.join(build, "examples", name)):
            for suffix in ("", ".exe"):
                if os.path.isfile(path + suffix):
                    return path + suffix
        sys.exit("%s is not in NETIO_BUILD=%s" % (name, build))
    cc = shlex.split(os.environ.get("CC", "cc"))
    if not shutil.which(cc[0]):
        print("skipped: NETIO_BUILD is not set, and there is no compiler %s" % cc[0])
        sys.exit(77)
    path = os.path.join(folder, name)
    # Old C libraries want -pthread; elsewhere it does no harm.
    source = os.path.join(SOURCE, "examples", name + ".c")
    if not os.path.isfile(source):
        source = os.path.join(SOURCE, "examples", "apps", name + ".c")
    flags, libraries = [], []
    with open(source) as f:
        if "netio_tls.h" in f.read():
            flags = ["-DNETIO_TLS_NONE" if no_tls() else "-DNETIO_TLS_OPENSSL"]
            libraries = [] if no_tls() else ["-lssl", "-lcrypto"]
    if subprocess.call(cc + flags + ["-pthread", source, "-o", path] + libraries):
        print("FAIL %s does not compile" % source)
        sys.exit(1)
    return path


def no_tls():
    return bool(EMULATOR) or os.environ.get("NETIO_TLS") == "none"


def need_tls():
    if no_tls():
        raise Skip("the programs were built without a TLS library")


certs_folder = []


def certs(name):
    """Path of a certificate, key or CA file that tests/tls/certs.sh makes, once for all facts."""
    need_tls()
    if not certs_folder:
        made = os.environ.get("NETIO_TEST_CERTS")
        if not made:
            tool("openssl")
            made = os.path.join(folder, "certs")
            subprocess.run(["sh", os.path.join(SOURCE, "tests", "tls", "certs.sh"), made],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        certs_folder.append(made)
    return os.path.join(certs_folder[0], name)


def tool(name):
    path = shutil.which(name)
    if not path:
        raise Skip("%s is not installed" % name)
    return path


def openbsd_nc():
    """OpenBSD's netcat: others that are called nc have other options."""
    for name in ("nc.openbsd", "nc"):
        path = shutil.which(name)
        if path:
            text = subprocess.run([path, "-h"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if b"OpenBSD" in text.stdout:
                return path
    raise Skip("netcat-openbsd is not installed")


class Run:
    """A process whose output is collected while it runs. Ends with the `with` block."""

    def __init__(self, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, emulate=True,
                 **more):
        self.command = (EMULATOR if emulate else []) + list(command)
        self.process = subprocess.Popen(self.command, stdin=stdin, stdout=stdout,
                                        stderr=subprocess.PIPE, **more)
        self.pid = self.process.pid
        self.out = bytearray()
        self.err = bytearray()
        self.changed = threading.Condition()
        self.threads = []
        self.collect(self.process.stderr, self.err)
        if self.process.stdout:
            self.collect(self.process.stdout, self.out)

    def collect(self, stream, into):
        def body():
            while True:
                try:
                    data = os.read(stream.fileno(), 1 << 16)
                except (OSError, ValueError):  # a child of it kept the pipe open; nobody cares now
                    data = b""
                with self.changed:
                    into.extend(data)
                    self.changed.notify_all()
                if not data:
                    return
        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        self.threads.append(thread)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for thread in self.threads:
            thread.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                if stream:
                    stream.close()
            except BrokenPipeError:
                pass

    def feed(self, data):
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError("%s takes no input; stderr %r" % (self.command, bytes(self.err)))

    def end_input(self):
        self.process.stdin.close()

    def feed_and_end(self, data):
        """Feed without waiting for the program to take it."""
        def body():
            try:
                self.feed(data)
                self.end_input()
            except (AssertionError, BrokenPipeError, ValueError):
                pass  # the exit code and what came out say more
        threading.Thread(target=body, daemon=True).start()

    def expect(self, pattern, stream=None, timeout=PATIENCE):
        """Wait until the pattern is in the output (or in `stream`), and return the match."""
        stream = self.out if stream is None else stream
        end = time.monotonic() + timeout
        with self.changed:
            while True:
                match = re.search(pattern, bytes(stream), re.S)
                if match:
                    return match
                left = end - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and
                                 not any(t.is_alive() for t in self.threads)):
                    raise AssertionError("%s: no %r in %r; stderr %r" % (
                        self.command, pattern, bytes(stream)[-300:], bytes(self.err)[-300:]))
                self.changed.wait(min(left, 0.2))

    def address(self, stream=None):
        """The address of the line "listening on ADDRESS"."""
        return self.expect(rb"listening on (\S+)", stream).group(1).decode()

    def port(self, stream=None):
        return int(self.address(stream).rsplit(":", 1)[1])

    def wait(self, timeout=PATIENCE):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError("%s did not end; stderr %r" % (self.command, bytes(self.err)))
        for thread in self.threads:
            thread.join(5)
        return code

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait()


def run(command, stdin=b"", timeout=PATIENCE, **more):
    """Run to the end. Returns exit code, output, error output (with bare line ends)."""
    with Run(command, **more) as p:
        p.feed_and_end(stdin)
        code = p.wait(timeout)
        return code, bytes(p.out), bytes(p.err).replace(b"\r\n", b"\n").decode()


def cpu_seconds(pid):
    """Time on the processor and number of waits so far of a process with one thread."""
    if not LINUX or EMULATOR:
        raise Skip("processor time of a process is read from Linux's /proc")
    with open("/proc/%d/schedstat" % pid) as f:
        seconds = int(f.read().split()[0]) / 1e9
    with open("/proc/%d/status" % pid) as f:
        waits = int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read(), re.M).group(1))
    return seconds, waits


def check_idle(pid, seconds=2.0):
    """An idle program uses next to no time: under 20 ms and 5 wakeups."""
    used, waits = cpu_seconds(pid)
    time.sleep(seconds)  # the silence is what is measured
    used_then, waits_then = cpu_seconds(pid)
    check(used_then - used < 0.020, "idle, but used %.1f ms" % (1000 * (used_then - used)))
    check(waits_then - waits < 5, "idle, but woke %d times" % (waits_then - waits))


def memory_kib(pid):
    if not LINUX or EMULATOR:
        raise Skip("memory of a process is read from Linux's /proc")
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"^VmRSS:\s*(\d+)", f.read(), re.M).group(1))


def need_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::1", 0))
    except OSError as e:
        raise Skip("no IPv6 loopback: %s" % e)


def need_unix():
    if not hasattr(socket, "AF_UNIX"):
        raise Skip("no Unix sockets in this Python")
    if WINE:
        raise Skip("no Unix sockets under Wine")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def end_of(s):
    """How a socket ends: "end" or "reset"."""
    try:
        receive_all(s)
        return "end"
    except ConnectionError:
        return "reset"


def path(name):
    return os.path.join(folder, name)


def payload(size, seed=1):
    """Bytes that are all different enough: order, loss and repetition show."""
    block = bytearray()
    state = seed & 0xffffffff or 1
    for _ in range(16384):
        state = (state * 1664525 + 1013904223) & 0xffffffff
        block += state.to_bytes(4, "little")
    out = bytearray()
    count = 0
    while len(out) < size:
        out += count.to_bytes(8, "little") + block
        count += 1
    return bytes(out[:size])


def receive_all(s, limit=1 << 40):
    """Receive until the end of the stream, or `limit` bytes."""
    out = bytearray()
    while len(out) < limit:
        data = s.recv(min(1 << 16, limit - len(out)))
        if not data:
            break
        out += data
    return bytes(out)


def in_thread(function, *args):
    """Start it; the returned call joins and gives its result or raises its error."""
    box = {}

    def body():
        try:
            box["result"] = function(*args)
        except BaseException as e:  # told to whoever joins
            box["error"] = e
    thread = threading.Thread(target=body, daemon=True)
    thread.start()

    def join():
        thread.join(PATIENCE)
        if thread.is_alive():
            raise AssertionError("%s is stuck" % function.__name__)
        if "error" in box:
            raise box["error"]
        return box["result"]
    return join


def main(section):
    socket.setdefaulttimeout(PATIENCE)
    failed = skipped = 0
    wanted = sys.argv[1:]
    chosen = [f for f in facts if not wanted or any(w in f.__name__ for w in wanted)]
    reason = "nothing is called so"
    for f in chosen:
        print("  %s.%s" % (section, f.__name__), flush=True)
        start = time.monotonic()
        try:
            f()
        except Skip as e:
            reason = e
            skipped += 1
            print("    skipped: %s" % e)
        except Exception:
            failed += 1
            traceback.print_exc(file=sys.stdout)
            print("    FAILED: %s.%s" % (section, f.__name__))
        if time.monotonic() - start > 1:
            print("    took %.1f s" % (time.monotonic() - start))
    if failed:
        print("FAIL %d of %d" % (failed, len(chosen)))
        sys.exit(1)
    if skipped == len(chosen):
        print("skipped: %s" % reason)
        sys.exit(77)
    if skipped:
        print("%d skipped, see their reasons above" % skipped)
    print("PASS %d" % (len(chosen) - skipped))
