#!/usr/bin/env python3
"""Network servers next to each other on the loopback. See README.md.

Builds the load generator and the servers into a temporary folder, runs interleaved rounds and
prints tables of ratios.
"""
import argparse
import ctypes
import json
import os
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
CC = os.environ.get("CC", "cc")
CXX = os.environ.get("CXX", "c++")

# program: source, libraries
PROGRAMS = {
    "epoll": ("epoll.c", ""),
    "netio": ("netio.c", "-lpthread"),
    "netio_poller": ("netio_poller.c", ""),
    "netio_udp": ("netio_udp.c", ""),
    "netio_tls": ("netio_tls.c", "-lssl -lcrypto -lpthread"),
    "uring": ("uring.c", "-luring"),
    "uv": ("uv.c", "-luv"),
    "event": ("event.c", "-levent"),
    "bufferevent": ("bufferevent.c", "-levent -levent_openssl -lssl -lcrypto"),
    "ev": ("ev.c", "-lev"),
    "asio": ("asio_echo.cpp", "-pthread"),
    "udp": ("udp.c", ""),
    "tls": ("tls.c", "-lssl -lcrypto"),
}

# server: group, command, modes it has. The first of a group is the base of its ratios.
ALL = "echo sink source fan"
NO_FAN = "echo sink source"
TLS = " --cert {cert} --key {key}"
SERVERS = {
    "epoll-lt": ("tcp", "{bin}/epoll {port} {mode}", ALL),
    "epoll-lt-again": ("tcp", "{bin}/epoll {port} {mode}", ALL),
    "epoll-et": ("tcp", "{bin}/epoll {port} {mode} --et", ALL),
    "netio": ("tcp", "{bin}/netio {port} {mode}", ALL),
    "netio-loop-poll": ("tcp", "{bin}/netio {port} {mode} --backend poll", ALL),
    "netio-loop-select": ("tcp", "{bin}/netio {port} {mode} --backend select", ALL),
    "netio-poller": ("tcp", "{bin}/netio_poller {port} {mode}", NO_FAN),
    "netio-poll": ("tcp", "{bin}/netio_poller {port} {mode} --backend poll", NO_FAN),
    "netio-select": ("tcp", "{bin}/netio_poller {port} {mode} --backend select", NO_FAN),
    "uring": ("tcp", "{bin}/uring {port} {mode}", ALL),
    "uring-direct": ("tcp", "{bin}/uring {port} {mode} --direct", ALL),
    "uring-hybrid": ("tcp", "{bin}/uring {port} {mode} --hybrid", ALL),
    "libuv": ("tcp", "{bin}/uv {port} {mode}", ALL),
    "libuv-write": ("tcp", "{bin}/uv {port} {mode} --write", ALL),
    "libevent": ("tcp", "{bin}/event {port} {mode}", NO_FAN),
    "bufferevent": ("tcp", "{bin}/bufferevent {port} {mode}", ALL),
    "libev": ("tcp", "{bin}/ev {port} {mode}", NO_FAN),
    "asio": ("tcp", "{bin}/asio {port} {mode}", NO_FAN),
    "epoll+recvfrom": ("udp", "{bin}/udp {port} udp --epoll", "udp"),
    "epoll+mmsg": ("udp", "{bin}/udp {port} udp --epoll --mmsg", "udp"),
    "netio-loop-udp": ("udp", "{bin}/netio {port} udp", "udp"),
    "netio-udp": ("udp", "{bin}/netio_udp {port} udp", "udp"),
    "block+recvfrom": ("udp", "{bin}/udp {port} udp", "udp"),
    "block+mmsg": ("udp", "{bin}/udp {port} udp --mmsg", "udp"),
    "libuv-udp": ("udp", "{bin}/uv {port} udp", "udp"),
    "openssl-fd": ("tls", "{bin}/tls {port} {mode}" + TLS, NO_FAN),
    "openssl-fd-as-is": ("tls", "{bin}/tls {port} {mode} --nora" + TLS, NO_FAN),
    "openssl-bio": ("tls", "{bin}/tls {port} {mode} --bio" + TLS, NO_FAN),
    "openssl-mem": ("tls", "{bin}/tls {port} {mode} --mem" + TLS, NO_FAN),
    "netio-tls": ("tls", "{bin}/netio_tls {port} {mode}" + TLS, NO_FAN),
    "bufferevent-ssl": ("tls", "{bin}/bufferevent {port} {mode} --tls {cert} {key}", NO_FAN),
    "openssl-fd-small": ("tls-small", "{bin}/tls {port} {mode} --piece 1000" + TLS, "source"),
    "openssl-bio-small": ("tls-small", "{bin}/tls {port} {mode} --bio --piece 1000" + TLS,
                          "source"),
    "netio-tls-small": ("tls-small", "{bin}/netio_tls {port} {mode}" + TLS + " --piece 1000",
                        "source"),
}
NOT_IN_FULL = {"epoll-lt-again", "netio-poll", "netio-select", "netio-loop-poll",
               "netio-loop-select"}

# What each habit costs, on the hand-written loop.
HABITS = {
    "et": "--et", "drain": "--drain", "arm": "--arm", "queue": "--queue", "one": "--one",
    "clock": "--clock", "timer": "--timer", "rbuf4k": "--rbuf 4096", "rbuf64k": "--rbuf 65536",
    "spin50": "--spin 50", "permsg": "--permsg 64", "gather": "--gather 64",
}

# workload: group, the server's mode, the load's mode and options
WORKLOADS = {
    "echo1-64": ("tcp", "echo", "echo --conns 1 --size 64"),
    "echo50-64": ("tcp", "echo", "echo --conns 50 --size 64"),
    "echo1000-64": ("tcp", "echo", "echo --conns 1000 --size 64"),
    "echo50-1k": ("tcp", "echo", "echo --conns 50 --size 1024"),
    "echo50-16k": ("tcp", "echo", "echo --conns 50 --size 16384"),
    "echo1000-1k": ("tcp", "echo", "echo --conns 1000 --size 1024"),
    "pipe1-64": ("tcp", "echo", "echo --conns 1 --size 64 --pipe 16"),
    "pipe50-64": ("tcp", "echo", "echo --conns 50 --size 64 --pipe 16"),
    "pipe50-1k": ("tcp", "echo", "echo --conns 50 --size 1024 --pipe 16"),
    "pipe50-16k": ("tcp", "echo", "echo --conns 50 --size 16384 --pipe 16"),
    "pipe1000-64": ("tcp", "echo", "echo --conns 1000 --size 64 --pipe 16"),
    "sink": ("tcp", "sink", "sink"),
    "source": ("tcp", "source", "source"),
    "churn": ("tcp", "echo", "churn --conns 20 --size 64"),
    "fan500": ("tcp", "fan", "fan --conns 500 --size 64"),
    "idle": ("tcp", "echo", "idle --conns 5000 --size 1024"),
    "udp1": ("udp", "udp", "udp --size 64 --pipe 1"),
    "udp32": ("udp", "udp", "udp --size 64 --pipe 32"),
    "tls-echo50-1k": ("tls", "echo", "echo --tls --conns 50 --size 1024"),
    "tls-echo50-64": ("tls", "echo", "echo --tls --conns 50 --size 64"),
    "tls-sink": ("tls", "sink", "sink --tls"),
    "tls-source": ("tls", "source", "source --tls"),
    "tls-source-small": ("tls-small", "source", "source --tls"),
    "tls-full": ("tls", "echo", "churn --tls --conns 20 --size 64"),
    "tls-resumed": ("tls", "echo", "churn --tls --resume --conns 20 --size 64"),
    "tls-idle": ("tls", "echo", "idle --tls --conns 2000 --size 1024"),
}
QUICK_WORKLOADS = ["echo50-64", "pipe50-64", "churn"]
QUICK_SERVERS = ["epoll-lt", "netio-poller", "uring", "libuv"]

MISSING = 77  # exit code: a tool is missing, nothing was measured


def note(text):
    print("bench: " + text, file=sys.stderr)


def missing(text):
    note(text)
    sys.exit(MISSING)


def need(*tools):
    """Ends the program, with the code for it, if a tool is not there."""
    for tool in tools:
        if not shutil.which(tool):
            missing("%s is missing" % tool)


def compiles(cmd):
    """Runs a compiler; the empty string, or its first error."""
    r = subprocess.run(cmd, capture_output=True, text=True)
    if not r.returncode:
        return ""
    return next((x for x in r.stderr.splitlines() if "error" in x), r.stderr[-200:]).strip()


def build_load(out):
    """Builds load and awake; whether load can speak TLS."""
    why = compiles([CC, "-O2", "-o", out + "/awake", HERE + "/awake.c"])
    if why:
        sys.exit("bench: awake.c does not build: " + why)
    load = [CC, "-O2", "-o", out + "/load", HERE + "/load.c"]
    why = compiles(load + ["-lssl", "-lcrypto"])
    if not why:
        return True
    note("left out: TLS (%s)" % why)
    why = compiles(load + ["-DLOAD_TLS=0"])
    if why:
        sys.exit("bench: load.c does not build: " + why)
    return False


def build_servers(out, wanted):
    """Compiles what is wanted; one whose library is not there is left out, with a note."""
    have = set()
    for name in wanted:
        source, libs = PROGRAMS[name]
        compiler = [CXX, "-std=c++17"] if source.endswith(".cpp") else [CC]
        why = compiles(compiler + ["-O2", "-I" + ROOT, "-o", out + "/" + name,
                                   HERE + "/servers/" + source] + libs.split())
        if why and not libs:
            sys.exit("bench: %s does not build: %s" % (source, why))
        if why:
            note("left out: %s (%s)" % (name, why))
        else:
            have.add(name)
    return have


def program_of(command):
    """The program of ours that a command runs, or None."""
    return command.split("{bin}/")[1].split()[0] if "{bin}/" in command else None


def make_certificate(out):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost",
                    "-keyout", out + "/key.pem", "-out", out + "/cert.pem"],
                   check=True, capture_output=True)


def raise_descriptor_limit():
    """As many descriptors as we may have; inherited by the servers and the load."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    top = 20000 if hard == resource.RLIM_INFINITY else min(hard, 20000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
    return top


def die_with_us():
    """A server ends with this program, however this program ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def wait_port(port, udp, process, seconds=10.0):
    if udp:
        time.sleep(0.15)
        return process.poll() is None
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return True
        except OSError:
            time.sleep(0.01)
    return False


class Runner:
    """Keeps the servers of a workload up side by side, idle but for the one under load: a slice can
    be short, and servers that are compared are measured within seconds of each other."""

    def __init__(self, tmp, server_cpu=0, load_cpu=1, secs=0.4, warm=0.1):
        self.tmp, self.server_cpu, self.load_cpu = tmp, server_cpu, load_cpu
        self.secs, self.warm = secs, warm
        self.port = 20000 + os.getpid() % 5000
        self.up, self.spinners = {}, []
        self.log = open(tmp + "/server.log", "wb")

    def keep_awake(self):
        for core in (self.server_cpu, self.load_cpu):
            self.spinners.append(subprocess.Popen([self.tmp + "/awake", str(core)]))

    def let_sleep(self):
        for p in self.spinners:
            p.kill()
            p.wait()
        self.spinners = []

    def start(self, command, group, mode, wrap=(), seconds=10.0):
        """A server on a port of its own: the process and the port, or None."""
        for _ in range(3):  # a port may be taken
            self.port = 20000 + (self.port - 20000 + 1) % 10000
            values = {"bin": self.tmp, "port": self.port, "mode": mode,
                      "cert": self.tmp + "/cert.pem", "key": self.tmp + "/key.pem"}
            text = command
            for key, value in values.items():
                text = text.replace("{%s}" % key, str(value))
            argv = ["taskset", "-c", str(self.server_cpu)] + list(wrap) + shlex.split(text)
            p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                 preexec_fn=die_with_us)
            if wait_port(self.port, group == "udp", p, seconds):
                return p, self.port
            p.kill()
            p.wait()
        return None

    def load(self, options, port, pid, timeout=60):
        """One run of the load: its numbers, or None and why."""
        argv = [self.tmp + "/load"] + options.split()
        argv += ["--port", str(port), "--pid", str(pid), "--cpu", str(self.load_cpu)]
        argv += ["--secs", str(self.secs), "--warm", str(self.warm)]
        if self.spinners:
            argv += ["--mine", ",".join(str(p.pid) for p in self.spinners)]
        try:
            r = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return None, "timed out"
        if r.returncode:
            return None, r.stderr.strip() or "exit code %d" % r.returncode
        pairs = (x.split("=", 1) for x in r.stdout.split())
        return {k: v if k in ("mode", "unit") else float(v) for k, v in pairs}, ""

    def slice(self, name, server, workload):
        """One slice of a workload on a server that stays up."""
        p = self.up.get(name)
        if not p or p[0].poll() is not None:
            p = self.start(server[1], server[0], workload[1])
            if not p:
                return None, "the server did not start"
            self.up[name] = p
        numbers, why = self.load(workload[2], p[1], p[0].pid)
        if numbers is None:
            self.stop(name)
        return numbers, why

    def rounds(self, names, servers, workload, count, tell, repeats=0, quiet=0.15):
        """A, B, C, then C, B, A, and so on, so that neither drift nor order favours one of them.
        Up to `repeats` rounds during which other programs ran are measured once more."""
        results = {n: [None] * count for n in names}
        i = 0
        while i < count:
            for name in names if i % 2 == 0 else reversed(names):
                numbers, why = self.slice(name, servers[name], workload)
                results[name][i] = numbers
                tell(name, i, numbers, why)
            loud = any(results[n][i] and results[n][i]["foreign"] > quiet for n in names)
            if loud and repeats > 0:
                repeats -= 1
            else:
                i += 1
        self.stop()
        return results

    def stop(self, name=None):
        for n in [name] if name else list(self.up):
            p = self.up.pop(n, None)
            if p:
                p[0].kill()
                p[0].wait()

    def close(self):
        self.stop()
        self.let_sleep()
        self.log.close()


def median(xs):
    return statistics.median(xs) if xs else float("nan")


def floor(xs):
    """The lower fifth: what disturbs a run only ever adds CPU time, so the low end is the server's
    own cost."""
    xs = sorted(xs)
    return xs[len(xs) // 5] if xs else float("nan")


def paired(rows, base, key="cpu_us"):
    """The ratio to the base within each round, in which other programs' load cancels out: median
    and the range that holds the true median in 95 of 100 cases."""
    xs = sorted(r[key] / b[key] for r, b in zip(rows, base) if r and b and b[key])
    if not xs:
        return float("nan"), float("nan"), float("nan")
    half = 0.98 * len(xs) ** 0.5
    low = max(0, int(len(xs) / 2 - half))
    high = min(len(xs) - 1, int(len(xs) / 2 + half))
    return median(xs), xs[low], xs[high]


def idle_table(results):
    out = ["| server | an open connection, B | after one echo on each, B | the process, KiB |",
           "|---|---|---|---|"]
    for name, rows in results.items():
        r = next((x for x in rows if x), None)
        if r:
            out.append("| %s | %.0f | %.0f | %.0f |" % (
                name, r["rss_open"], r["rss_after"], r["rss_base"] / 1024))
        else:
            out.append("| %s | failed |" % name)
    return out


def table(title, results, base, quiet):
    """CPU time: the lower fifth, its ratio, and the paired ratio. Rates and latencies: medians over
    the quiet slices; the ratio of rates only over rounds that were quiet for both."""
    head = ["", "### %s (base: %s)" % (title, base), ""]
    if "idle" in title:
        return "\n".join(head + idle_table(results))
    base_rows = results[base]
    unit = next((r["unit"] for rows in results.values() for r in rows if r), "op")
    out = ["| server | CPU us/%s | ratio | paired ratio (95 %%) | %s/s | ratio | p50 us | p99 us "
           "| p999 us | server busy | quiet |" % (unit, unit), "|---" * 11 + "|"]
    base_cpu = floor([r["cpu_us"] for r in base_rows if r])
    for name, rows in results.items():
        ok = [r for r in rows if r]
        if not ok:
            out.append("| %s | failed |" % name)
            continue
        calm = [r for r in ok if r["foreign"] <= quiet]
        mid = {k: median([r[k] for r in calm or ok])
               for k in ("rate", "p50", "p99", "p999", "srv_util")}
        cpu = floor([r["cpu_us"] for r in ok])
        rates = [r["rate"] / b["rate"] for r, b in zip(rows, base_rows)
                 if r and b and max(r["foreign"], b["foreign"]) <= quiet]
        out.append("| %s | %.4g | %.2f | %.3f (%.3f-%.3f) | %.4g | %s | %.4g | %.4g | %.4g | %.2f "
                   "| %d/%d |" % ((name, cpu, cpu / base_cpu) + paired(rows, base_rows) + (
                       mid["rate"], "%.2f" % median(rates) if rates else "-", mid["p50"],
                       mid["p99"], mid["p999"], mid["srv_util"], len(calm), len(rows))))
    return "\n".join(head + out)


def arguments():
    ap = argparse.ArgumentParser(prog="bench.sh", allow_abbrev=False,
                                 description="Servers next to each other on the loopback.")
    ap.add_argument("--full", action="store_true", help="every workload, every server, 12 rounds")
    ap.add_argument("--smoke", action="store_true",
                    help="build all, run each workload and each server once for 0.3 s; no numbers")
    ap.add_argument("--habits", action="store_true",
                    help="instead of the peers: what each habit costs the hand-written epoll loop")
    ap.add_argument("--workloads", help="comma-separated, or a prefix with *")
    ap.add_argument("--servers", help="comma-separated; the base of each group is always added")
    ap.add_argument("--add", action="append", default=[], metavar="NAME[:tcp|udp|tls]=CMD",
                    help="one more server; {port} {mode} {cert} {key} are filled in; a command "
                         "without {mode} is an echo server")
    ap.add_argument("--rounds", type=int, help="default: 6; 12 with --full, --habits")
    ap.add_argument("--secs", type=float, default=0.4, help="length of a slice")
    ap.add_argument("--warm", type=float, default=0.1)
    ap.add_argument("--server-cpu", type=int, default=0)
    ap.add_argument("--load-cpu", type=int, default=1)
    ap.add_argument("--awake", action="store_true",
                    help="an idle-priority spinner on both cores: a virtual machine's core that "
                         "never halts wakes at once")
    ap.add_argument("--quiet", type=float, default=0.15,
                    help="cores that other programs may take during a slice that counts as quiet")
    ap.add_argument("--json", help="also write the numbers of every slice to this file")
    ap.add_argument("--list", action="store_true", help="names of workloads, servers, habits")
    a = ap.parse_args()
    a.rounds = a.rounds or (12 if a.full or a.habits else 6)
    if a.smoke:
        a.rounds, a.secs, a.warm = 1, 0.3, 0.05
    return a


def choose(a):
    """The servers by name, those of them that run, and the workloads."""
    servers = dict(SERVERS)
    if a.habits:
        servers = {"epoll-lt": SERVERS["epoll-lt"]}
        for name, flags in HABITS.items():
            servers[name] = ("tcp", "{bin}/epoll {port} {mode} " + flags, ALL)
    added = []
    for s in a.add:
        name, command = s.split("=", 1)
        name, _, group = name.partition(":")
        group = group or "tcp"
        modes = {"tcp": ALL, "udp": "udp", "tls": NO_FAN}[group]
        servers[name] = (group, command, modes if "{mode}" in command or group == "udp" else "echo")
        added.append(name)

    everything = a.full or a.habits or a.smoke
    asked = a.workloads.split(",") if a.workloads else (
        list(WORKLOADS) if a.full or a.smoke else QUICK_WORKLOADS)
    workloads = [w for x in asked for w in WORKLOADS
                 if w == x or (x.endswith("*") and w.startswith(x[:-1]))]
    groups = {WORKLOADS[w][0] for w in workloads}
    if a.servers:
        names = a.servers.split(",")
        for n in names:
            if n not in servers:
                sys.exit("bench: no server %s; --list names them" % n)
    elif everything:
        names = [s for s in servers if a.smoke or s not in NOT_IN_FULL]
    else:
        names = QUICK_SERVERS + [s for s in servers if servers[s][0] in groups - {"tcp"}]
    base = {}
    for s in servers:
        base.setdefault(servers[s][0], s)
    names = [s for s in servers if s in names or s in added or s in base.values()]
    return servers, [s for s in names if servers[s][0] in groups], workloads, base


def connections_of(workload):
    words = WORKLOADS[workload][2].split()
    return int(words[words.index("--conns") + 1]) if "--conns" in words else 1


def smoke_names(names, servers, workload, base, seen):
    """The base and netio's servers for each workload, of the others each once."""
    group = WORKLOADS[workload][0]
    return [s for s in names if s in (base[group], "netio-poller", "netio-tls") or
            ("idle" not in workload and program_of(servers[s][1]) and s not in seen)]


def main():
    a = arguments()
    if a.list:
        print("workloads:", " ".join(WORKLOADS))
        print("servers:", " ".join(SERVERS))
        print("habits:", " ".join(HABITS))
        return 0
    need(CC, "taskset")
    if len(os.sched_getaffinity(0)) < 2:
        missing("two cores are needed: one for the server, one for the load")
    servers, names, workloads, base = choose(a)
    limit = raise_descriptor_limit()
    tmp = tempfile.mkdtemp(prefix="netbench.")
    run, log, seen, failures = None, [], set(), 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        tls = build_load(tmp) and shutil.which("openssl")
        wanted = {program_of(servers[s][1]) for s in names} - {None}
        have = build_servers(tmp, [p for p in PROGRAMS if p in wanted])
        names = [s for s in names if program_of(servers[s][1]) in have | {None}]
        if tls and any(servers[s][0].startswith("tls") for s in names):
            make_certificate(tmp)
        run = Runner(tmp, a.server_cpu, a.load_cpu, a.secs, a.warm)
        if a.awake:
            run.keep_awake()
        awake = ", cores kept awake" if a.awake else ""
        print("%d rounds of %.1f s, server on core %d, load on core %d%s" % (
            a.rounds, a.secs, a.server_cpu, a.load_cpu, awake))
        for w in workloads:
            group, mode, _ = WORKLOADS[w]
            who = [s for s in names if servers[s][0] == group and mode in servers[s][2].split()]
            if a.smoke:
                who = smoke_names(who, servers, w, base, seen)
            if group.startswith("tls") and not tls:
                continue
            if connections_of(w) + 100 > limit:
                note("left out: %s (only %d descriptors)" % (w, limit))
                continue
            if not who:
                continue

            def tell(name, i, numbers, why):
                nonlocal failures
                seen.add(name)
                log.append({"workload": w, "server": name, "round": i, "result": numbers,
                            "why": why})
                if numbers is None:
                    failures += 1
                    note("failed: %s %s: %s" % (w, name, why))

            results = run.rounds(who, servers, WORKLOADS[w], 1 if "idle" in w else a.rounds, tell)
            if a.smoke:
                print("%s: %s" % (w, " ".join(who)), flush=True)
            else:
                first = base[group] if base[group] in results else who[0]
                print(table(w, results, first, a.quiet), flush=True)
            if a.json:
                with open(a.json, "w") as f:
                    json.dump(log, f)
    finally:
        if run:
            run.close()
        shutil.rmtree(tmp, ignore_errors=True)
    if a.smoke:
        print("smoke: %d runs, %d failed" % (len(log), failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
