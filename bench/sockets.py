#!/usr/bin/env python3
"""What netio's calls for datagrams and files cost over the system calls behind them. See README.md.

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

import bench
import poller

PARTS = ["cpu", "echo", "calls", "instructions", "segments", "sendfile"]
SINGLE, MMSG, NETIO = "epoll+recvfrom", "epoll+mmsg", "netio-udp"
KINDS = ["single", "netio-single", "mmsg", "netio-batch"]  # netio's behind what it is held against
FLIGHTS = [1, 32]


def in_flight(n):
    return "one in flight" if n == 1 else "%d in flight" % n


# --- servers under load --------------------------------------------------------------------------

def part_cpu(a, report, run):
    for n in FLIGHTS:
        workload = ("udp", "udp", "udp --size 64 --pipe %d" % n)

        def tell(name, i, numbers, why):
            if numbers is None:
                bench.note("failed: %s, %s: %s" % (in_flight(n), name, why))

        results = run.rounds([SINGLE, MMSG, NETIO], bench.SERVERS, workload, a.rounds, tell,
                             a.repeats, a.quiet)
        print(bench.table("UDP echo, %s, 64 B" % in_flight(n), results, SINGLE, a.quiet),
              flush=True)
        for base, limit in ((SINGLE, 1.05 if n == 1 else 0.90), (MMSG, 1.05 if n == 1 else 1.03)):
            ratio, low, high = bench.paired(results[NETIO], results[base])
            report.bar("CPU per datagram under load, %s, to %s (95 %%: %.3f-%.3f)"
                       % (in_flight(n), base, low, high), ratio, limit, "%.3f", low, high)


# --- one process, both sides ---------------------------------------------------------------------

def cost(a, tmp, what):
    """Runs socket_cost: the head of its table and the rows."""
    argv = ["taskset", "-c", str(a.server_cpu), tmp + "/socket_cost", what,
            "--other", str(a.load_cpu)]
    r = subprocess.run(argv + (["--quick"] if a.smoke else []), capture_output=True, text=True,
                       timeout=300)
    if r.returncode:
        sys.exit("bench: socket_cost %s: %s" % (what, r.stderr.strip()))
    lines = [[x.strip() for x in line.strip("|\n").split("|")] for line in r.stdout.splitlines()]
    return lines[0], lines[2:]


def part_echo(a, report, run):
    head, rows = cost(a, run.tmp, "echo")
    report.table("A step of a UDP echo server: wait, receive, send back", head, rows)
    for flight, calls, _, single, mmsg in rows:
        if flight not in ("1", "32") or not calls.startswith("netio"):
            continue
        what = "ns of an echo step, %s, %s to " % (in_flight(int(flight)), calls)
        if "batch" not in calls:
            report.bar(what + "recvfrom, sendto", float(single), 1.05)
        elif flight == "1":
            report.bar(what + "recvmmsg, sendmmsg", float(mmsg), 1.05)
        else:
            report.bar(what + "recvfrom, sendto", float(single), 0.90)
            report.bar(what + "recvmmsg, sendmmsg", float(mmsg), 1.03)


def counted(run, wrap, kind, n, rounds):
    argv = wrap + [run.tmp + "/socket_cost", "step", kind, str(n), str(rounds)]
    r = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if r.returncode:
        sys.exit("bench: %s: %s" % (" ".join(argv), r.stderr.strip()))


def part_calls(a, report, run):
    path, rows, totals = run.tmp + "/strace.out", [], {}

    def measure(kind, n, rounds):
        counted(run, ["strace", "-f", "-c", "-o", path], kind, n, rounds)
        calls = poller.strace_counts(path)
        return {k: v for k, v in calls.items() if k not in ("read", "write")}  # the client's

    for n in FLIGHTS:
        for kind in KINDS:
            calls = poller.per_message(lambda rounds: measure(kind, n, rounds), a.steps)
            totals[kind] = sum(calls.values()) / n
            named = ", ".join("%s %.3f" % (k, v / n) for k, v in sorted(calls.items()) if v > 0.001)
            rows.append((n, kind, "%.3f" % totals[kind], named))
        for base, kind in zip(KINDS[::2], KINDS[1::2]):
            report.bar("system calls per datagram more, %s, %s" % (in_flight(n), kind),
                       totals[kind] - totals[base], 0.02)
    report.table("System calls per datagram echoed (strace)",
                 ["in flight", "calls", "a datagram", "which"], rows)


def part_instructions(a, report, run):
    path, rows, totals = run.tmp + "/callgrind.out", [], {}

    def measure(kind, n, rounds):
        counted(run, ["valgrind", "-q", "--tool=callgrind", "--toggle-collect=step_*",
                      "--callgrind-out-file=" + path], kind, n, rounds)
        with open(path) as f:
            sums = [x for x in f if x.startswith(("totals:", "summary:"))]
        return {"instructions": int(sums[-1].split()[1])}

    for n in FLIGHTS:
        for kind in KINDS:
            steps = poller.per_message(lambda rounds: measure(kind, n, rounds), a.steps)
            totals[kind] = steps["instructions"] / n
        for base, kind in zip(KINDS[::2], KINDS[1::2]):
            more = totals[kind] - totals[base]
            rows.append((n, base, "%.0f" % totals[base], ""))
            rows.append((n, kind, "%.0f" % totals[kind], "%.0f" % more))
    report.table("User-space instructions per datagram echoed (callgrind)",
                 ["in flight", "calls", "a datagram", "more"], rows)


def part_segments(a, report, run):
    head, rows = cost(a, run.tmp, "segments")
    report.table("1,200-byte datagrams, 54 at a time", head, rows)
    for what, calls, _, ratio in rows:
        if not calls.startswith("netio"):
            continue
        segment = "segment" in calls.lower()
        report.bar("%s, %s, to %s" % (what, calls, rows[0][1] if "send" in what else "recvmmsg"),
                   float(ratio), 0.5 if segment else 1.03)


def part_sendfile(a, report, run):
    head, rows = cost(a, run.tmp, "sendfile")
    report.table("A gibibyte of a file over TCP: the sender's CPU time", head, rows)
    for calls, _, to_16, _, to_sendfile in rows:
        if not calls.startswith("netio"):
            continue
        for what, text, limit in (("a copy loop of 16 KiB", to_16, 0.5),
                                  ("sendfile", to_sendfile, 1.05)):
            ratio, low, high = (float(x) for x in re.findall(r"[0-9.]+", text))
            report.bar("netio_sendfile, to %s (95 %%: %.3f-%.3f)" % (what, low, high), ratio, limit,
                       "%.3f", low, high)


# --- main ----------------------------------------------------------------------------------------

def arguments():
    ap = argparse.ArgumentParser(prog="sockets.sh", allow_abbrev=False,
                                 description="What netio's calls for datagrams and files cost.")
    ap.add_argument("--only", help="comma-separated parts of: " + ",".join(PARTS))
    ap.add_argument("--rounds", type=int, default=120, help="of the servers under load")
    ap.add_argument("--repeats", type=int, default=60,
                    help="of rounds of the servers during which other programs ran")
    ap.add_argument("--secs", type=float, default=0.1, help="length of a slice")
    ap.add_argument("--steps", type=int, default=1000, help="of the counts")
    ap.add_argument("--header", default=bench.ROOT, metavar="FOLDER",
                    help="where the netio.h to measure is: to compare one with another")
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
    if a.smoke:
        a.rounds, a.repeats, a.steps = 2, 0, 100
    bench.ROOT = os.path.abspath(a.header)
    return a


def main():
    a = arguments()
    bench.need(bench.CC, "taskset")
    if len(os.sched_getaffinity(0)) < 2:
        bench.missing("two cores are needed: one for each side")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tmp, run, report = tempfile.mkdtemp(prefix="netbench."), None, poller.Report()
    try:
        run = bench.Runner(tmp, a.server_cpu, a.load_cpu, a.secs, 0.03)
        if "cpu" in a.only:
            bench.build_load(tmp)
            bench.build_servers(tmp, ["udp", "netio_udp"])
        why = bench.compiles([bench.CC, "-O2", "-I" + bench.ROOT, "-o", tmp + "/socket_cost",
                              bench.HERE + "/socket_cost.c"])
        if why:
            sys.exit("bench: socket_cost.c does not build: " + why)
        tools = {"calls": "strace", "instructions": "valgrind"}
        for part in a.only:
            if part in tools and not shutil.which(tools[part]):
                report.left_out(part, "%s is missing" % tools[part])
                continue
            if part == "cpu" and not a.asleep:
                run.keep_awake()
            globals()["part_" + part](a, report, run)
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
