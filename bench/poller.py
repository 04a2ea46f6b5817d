#!/usr/bin/env python3
"""What netio_poller costs over the system calls behind it. See README.md.

Every part prints a table; the last one sets the numbers beside the bars they are held to.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import bench

PARTS = ["cpu", "calls", "instructions", "wait", "change", "memory", "compile", "size"]
BASE = "epoll-lt"
CONNS = [1, 50, 1000]


class Report:
    """Tables as they come, and what they amount to."""

    def __init__(self):
        self.verdicts = []

    def table(self, title, head, rows):
        print("\n### %s\n\n| %s |\n%s|" % (title, " | ".join(head), "|---" * len(head)))
        for row in rows:
            print("| %s |" % " | ".join(str(x) for x in row))
        sys.stdout.flush()

    def bar(self, what, value, limit, form="%.3f", low=None, high=None):
        """A measured value that is to be at most `limit`. Where it lies between `low` and `high`
        and the limit does too, the measurement cannot tell, whichever way it came out."""
        verdict = "met" if value <= limit else "NOT MET"
        if low is not None and not (high <= limit or low > limit):
            verdict = "too noisy to tell"
        self.verdicts.append((what, form % value, "<= " + form % limit, verdict))

    def left_out(self, part, why):
        print("\n### %s\n\nleft out: %s" % (part, why), flush=True)
        self.verdicts.append((part, "left out: " + why, "", ""))

    def close(self):
        if self.verdicts:
            self.table("Against the bars", ["what", "measured", "bar", ""], self.verdicts)


def connections(n):
    return "%d connection%s" % (n, "" if n == 1 else "s")


# --- CPU time ------------------------------------------------------------------------------------

def part_cpu(a, report, run):
    names = [BASE, a.server, BASE + "-again"]
    for conns in CONNS:
        workload = ("tcp", "echo", "echo --conns %d --size 64" % conns)

        def tell(name, i, numbers, why):
            if numbers is None:
                bench.note("failed: %s, %s: %s" % (connections(conns), name, why))

        results = run.rounds(names, bench.SERVERS, workload, a.rounds, tell, a.repeats,
                             a.quiet)
        title = "echo, %s, 64 B" % connections(conns)
        print(bench.table(title, results, BASE, a.quiet), flush=True)
        ratio, low, high = bench.paired(results[a.server], results[BASE])
        noise = bench.paired(results[BASE + "-again"], results[BASE])[0]
        report.bar("CPU per message, %s, paired ratio (95 %%: %.3f-%.3f; the base to itself: %.3f)"
                   % (connections(conns), low, high, noise), ratio, 1.03, "%.3f", low, high)


# --- counts over an exact number of messages ------------------------------------------------------

def child_of(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(x) for x in f.read().split()]


def counted(run, name, wrap, conns, messages, signal_child):
    """Runs a server under a tool, sends it an exact number of messages and ends it."""
    got = run.start(bench.SERVERS[name][1], "tcp", "echo", wrap, seconds=20)
    if not got:
        sys.exit("bench: %s did not start under %s" % (name, wrap[0]))
    process, port = got
    target = child_of(process.pid)[0] if signal_child else process.pid
    numbers, why = run.load("echo --conns %d --size 64 --count %d" % (conns, messages), port,
                            target, timeout=180)
    time.sleep(0.5)  # both runs of a difference see all their connections close
    os.kill(target, signal.SIGTERM)
    process.wait()
    if numbers is None:
        sys.exit("bench: %s under %s: %s" % (name, wrap[0], why))


def per_message(measure, messages):
    """The difference of a short and a long run: starting, connecting and ending cancel out."""
    few, many = measure(messages // 10), measure(messages)
    keys = sorted(set(few) | set(many))
    return {k: (many.get(k, 0) - few.get(k, 0)) / (messages - messages // 10) for k in keys}


def strace_counts(path):
    counts = {}
    with open(path) as f:
        for line in f:
            words = line.split()
            if len(words) >= 5 and re.match(r"^[0-9.]+$", words[0]) and words[-1] != "total":
                counts[words[-1]] = int(words[3])
    return counts


def part_calls(a, report, run):
    def measure(name, conns, messages):
        path = run.tmp + "/strace.out"
        counted(run, name, ["strace", "-f", "-c", "-o", path], conns, messages, True)
        return strace_counts(path)

    rows, totals = [], {}
    for conns in CONNS[:2]:
        for name in (BASE, a.server):
            calls = per_message(lambda n: measure(name, conns, n), a.messages)
            totals[name] = sum(calls.values())
            named = ", ".join("%s %.3f" % (k, v) for k, v in sorted(calls.items()) if v > 0.0005)
            rows.append((name, conns, "%.3f" % totals[name], named))
        more = totals[a.server] - totals[BASE]
        report.bar("system calls per message more, " + connections(conns), more, 0.02)
    report.table("System calls per message (strace)",
                 ["server", "connections", "calls", "which"], rows)


def part_instructions(a, report, run):
    def measure(name, conns, messages):
        path = run.tmp + "/callgrind.out"
        counted(run, name, ["valgrind", "-q", "--tool=callgrind", "--callgrind-out-file=" + path],
                conns, messages, False)
        with open(path) as f:
            totals = [x for x in f if x.startswith(("totals:", "summary:"))]
        return {"instructions": int(totals[-1].split()[1])}

    rows = []
    for conns in CONNS[:2]:
        found = {}
        for name in (BASE, a.server):
            found[name] = per_message(lambda n: measure(name, conns, n), a.messages)["instructions"]
            rows.append((name, conns, "%.0f" % found[name], "%.0f" % (found[name] - found[BASE])))
        report.bar("user-space instructions per message more, " + connections(conns),
                   found[a.server] - found[BASE], 300, "%.0f")
    report.table("User-space instructions per message (callgrind)",
                 ["server", "connections", "instructions", "more than " + BASE], rows)


# --- the poller alone ----------------------------------------------------------------------------

def cost(a, tmp, what):
    argv = ["taskset", "-c", str(a.server_cpu), tmp + "/poller_cost", what]
    r = subprocess.run(argv + (["--quick"] if a.smoke else []), capture_output=True, text=True,
                       timeout=300)
    if r.returncode:
        sys.exit("bench: poller_cost %s: %s" % (what, r.stderr.strip()))
    lines = [[x.strip() for x in line.strip("|\n").split("|")] for line in r.stdout.splitlines()]
    return lines[0], lines[2:]


def part_wait(a, report, tmp):
    head, rows = cost(a, tmp, "wait")
    report.table("One wait: netio_poller_wait next to the bare call", head, rows)
    for r in rows:
        if r[1] == "each further" and r[0] in ("select", "poll"):
            report.bar("%s: ns of a wait for each further socket, to the bare call's" % r[0],
                       float(r[3]) / float(r[2]), 1.15, "%.2f")


def part_change(a, report, tmp):
    head, rows = cost(a, tmp, "change")
    report.table("Changing registrations", head, rows)
    found = {}
    for r in rows:
        if r[1].isdigit() and not r[0].startswith("bare"):
            found.setdefault(r[0], []).append([float(x) for x in r[2:6]])
    for name, (few, many) in found.items():
        # Four times, because many registrations do not fit the processor's cache and few do; below
        # 50 ns that is all there is to see.
        worst = max(m / max(f, 50) for f, m in zip(few, many))
        report.bar("%s: a change with many registrations, to one with few" % name, worst, 4, "%.1f")


def part_memory(a, report, tmp):
    head, rows = cost(a, tmp, "memory")
    report.table("Memory beyond the kernel's", head, rows)
    for r in rows:
        report.bar("%s: bytes for each of %s registrations" % (r[0], r[2]), float(r[3]), 64, "%.1f")
        report.bar("%s: at its worst" % r[0], float(r[4].split(",")[0]), 64, "%.1f")


# --- the compiler --------------------------------------------------------------------------------

def cpu_seconds(argv):
    """CPU time of a command: on a busy machine steadier than the time on the wall."""
    pid = os.posix_spawnp(argv[0], argv, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        sys.exit("bench: %s failed" % " ".join(argv))
    return used.ru_utime + used.ru_stime


def sources(tmp):
    texts = {"empty": "int x;\n", "declare": '#include "netio.h"\nint x;\n',
             "implement": '#define NETIO_IMPLEMENTATION\n#include "netio.h"\n'}
    for name, text in texts.items():
        with open("%s/%s.c" % (tmp, name), "w") as f:
            f.write(text)


def part_compile(a, report, tmp):
    sources(tmp)
    rows = []
    for argv in (["gcc"], ["clang"], ["g++", "-xc++", "-std=c++11"]):
        if not shutil.which(argv[0]):
            continue
        common = argv + ["-c", "-I" + bench.ROOT, "-o", "/dev/null"]
        empty, declare = [], []
        for _ in range(5 if a.smoke else 30):
            empty.append(cpu_seconds(common + ["-O2", tmp + "/empty.c"]))
            declare.append(cpu_seconds(common + ["-O2", tmp + "/declare.c"]))
        ms = 1000 * (bench.median(declare) - bench.median(empty))
        times = [min(cpu_seconds(common + [opt, tmp + "/implement.c"])
                     for _ in range(1 if a.smoke else 3)) for opt in ("-O0", "-Os", "-O2")]
        rows.append(["`%s`" % " ".join(argv), "%.1f ms" % ms] + ["%.2f s" % t for t in times])
        report.bar("declarations, %s, ms" % argv[0], ms, 15, "%.1f")
        report.bar("implementation at -O2, %s, s" % argv[0], times[2], 3, "%.2f")
    with open(bench.ROOT + "/netio.h") as f:
        lines = len(f.readlines())
    report.table("CPU time of the compiler (netio.h: %d lines)" % lines,
                 ["compiler", "declarations", "implementation -O0", "-Os", "-O2"], rows)


def part_size(a, report, tmp):
    sources(tmp)
    rows = []
    for cc in ("gcc", "clang"):
        for opt in ("-Os", "-O2"):
            if not shutil.which(cc):
                continue
            out = tmp + "/size.o"
            subprocess.run([cc, opt, "-c", "-I" + bench.ROOT, "-o", out, tmp + "/implement.c"],
                           check=True)
            words = subprocess.run(["size", out], check=True, capture_output=True, text=True)
            text, data, bss = (int(x) for x in words.stdout.splitlines()[1].split()[:3])
            rows.append((cc, opt, text, data, bss, "%.1f" % ((text + data) / 1024)))
            if cc == "gcc" and opt == "-Os":
                report.bar("object code at -Os, gcc, KiB", (text + data) / 1024, 60, "%.1f")
    report.table("Object code of the implementation",
                 ["compiler", "", "text", "data", "bss", "text and data, KiB"], rows)


# --- main ----------------------------------------------------------------------------------------

def arguments():
    ap = argparse.ArgumentParser(prog="poller.sh", allow_abbrev=False,
                                 description="What netio_poller costs over the calls behind it.")
    ap.add_argument("--only", help="comma-separated parts of: " + ",".join(PARTS))
    ap.add_argument("--server", default="netio-poller", help="what to hold against " + BASE)
    ap.add_argument("--rounds", type=int, default=120, help="of the CPU times")
    ap.add_argument("--repeats", type=int, default=60,
                    help="of rounds of the CPU times during which other programs ran")
    ap.add_argument("--secs", type=float, default=0.1, help="length of a slice")
    ap.add_argument("--messages", type=int, default=10000, help="of the counts")
    ap.add_argument("--server-cpu", type=int, default=0)
    ap.add_argument("--load-cpu", type=int, default=1)
    ap.add_argument("--asleep", action="store_true", help="do not keep the cores awake")
    ap.add_argument("--quiet", type=float, default=0.15,
                    help="cores that other programs may take during a slice that counts as quiet")
    ap.add_argument("--smoke", action="store_true", help="everything as short as it can be")
    a = ap.parse_args()
    a.only = a.only.split(",") if a.only else PARTS
    for part in a.only:
        if part not in PARTS:
            ap.error("no part %s" % part)
    if a.server not in bench.SERVERS or bench.SERVERS[a.server][0] != "tcp":
        ap.error("no TCP server %s" % a.server)
    if a.smoke:
        a.rounds, a.repeats, a.messages = 2, 0, 2000
    return a


def main():
    a = arguments()
    bench.need(bench.CC, "taskset")
    if len(os.sched_getaffinity(0)) < 2:
        bench.missing("two cores are needed: one for the server, one for the load")
    bench.raise_descriptor_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tmp, run, report = tempfile.mkdtemp(prefix="netbench."), None, Report()
    try:
        run = bench.Runner(tmp, a.server_cpu, a.load_cpu, a.secs, 0.03)
        if {"cpu", "calls", "instructions"} & set(a.only):
            bench.build_load(tmp)
            wanted = {bench.program_of(bench.SERVERS[n][1]) for n in (BASE, a.server)}
            if bench.build_servers(tmp, wanted) != wanted:
                return 1
        if {"wait", "change", "memory"} & set(a.only):
            why = bench.compiles([bench.CC, "-O2", "-I" + bench.ROOT, "-o", tmp + "/poller_cost",
                                  bench.HERE + "/poller_cost.c"])
            if why:
                sys.exit("bench: poller_cost.c does not build: " + why)
        tools = {"calls": "strace", "instructions": "valgrind", "size": "size"}
        for part in a.only:
            if part in tools and not shutil.which(tools[part]):
                report.left_out(part, "%s is missing" % tools[part])
                continue
            if part == "cpu" and not a.asleep:
                run.keep_awake()
            needs = run if part in ("cpu", "calls", "instructions") else tmp
            globals()["part_" + part](a, report, needs)
            if part == "cpu":
                run.let_sleep()
        if not a.smoke:
            report.close()
    finally:
        if run:
            run.close()
        shutil.rmtree(tmp, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
