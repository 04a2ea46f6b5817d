#!/usr/bin/env python3
"""A link between two network namespaces that runs in this process, for what the kernel lacks
without netem: delay, jitter, reordering, duplication, loss, one-way cuts. --seed repeats a run.

  tunlink.py NS_A NS_B [--delay MS] [--jitter MS] [--reorder PCT] [--dup PCT] [--loss PCT]
             [--seed N] [--ctl FILE] [--ready FILE]

Adds device "t0" to both: 10.201.0.1 and fd21::1 in NS_A, 10.201.0.2 and fd21::2 in NS_B. The file
of --ctl is read again when it changes: lines such as "delay=80", "loss=5", "cut=a" (drop what A
sends), "cut=ab", "cut=". The file of --ready is created once the link is up. Stops on SIGTERM.
"""
import argparse
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def ip(*words):
    subprocess.run(("ip",) + words, check=True)


def tun(netns, n):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = "tl%d%s" % (os.getpid() % 100000, "ab"[n - 1])
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    ip("link", "set", name, "netns", netns)  # the descriptor goes on working
    ip("-n", netns, "link", "set", name, "name", "t0")
    ip("-n", netns, "addr", "add", "10.201.0.%d/24" % n, "dev", "t0")
    ip("-n", netns, "addr", "add", "fd21::%d/64" % n, "dev", "t0", "nodad")
    ip("-n", netns, "link", "set", "t0", "up")
    return fd


class Control:
    """The settings: from the command line, then from the file whenever it changed."""

    def __init__(self, args):
        self.path, self.seen = args.ctl, None
        self.value = {k: getattr(args, k) for k in ("delay", "jitter", "reorder", "dup", "loss")}
        self.value["cut"] = ""

    def look(self):
        try:
            changed = os.stat(self.path).st_mtime_ns if self.path else None
            if changed == self.seen:
                return
            self.seen = changed
            with open(self.path) as f:
                for line in f:
                    k, _, v = line.strip().partition("=")
                    if k in self.value:
                        self.value[k] = v if k == "cut" else float(v)
        except (OSError, ValueError):
            pass  # not there yet, or half written: the next look finds it


class Link:
    def __init__(self, control, seed, fds):
        self.value, self.random, self.fds = control.value, random.Random(seed), fds
        self.due, self.count, self.last = [], 0, [0.0, 0.0]

    def chance(self, key):
        return self.random.random() * 100 < self.value[key]

    def take(self, side, packet, now):
        """A packet that `side` sent: drop it, or say when it arrives, and how often."""
        value = self.value
        if "ab"[side] in value["cut"] or self.chance("loss"):
            return
        at = now + (value["delay"] + self.random.random() * value["jitter"]) / 1000
        at = self.last[side] = max(at, self.last[side])  # jitter alone keeps the order
        if self.chance("reorder"):
            at += max(value["delay"] / 2, 2.0) / 1000    # others overtake this one
        for _ in range(2 if self.chance("dup") else 1):
            self.count += 1
            heapq.heappush(self.due, (at, self.count, self.fds[1 - side], packet))

    def wait(self):
        return min(0.05, max(0.0, self.due[0][0] - time.monotonic())) if self.due else 0.05

    def deliver(self):
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            _, _, out, packet = heapq.heappop(self.due)
            try:
                os.write(out, packet)
            except OSError:
                pass  # the device is down: lost, as on a real link


def main():
    p = argparse.ArgumentParser()
    p.add_argument("ns_a"), p.add_argument("ns_b")
    for k in ("delay", "jitter", "reorder", "dup", "loss"):
        p.add_argument("--" + k, type=float, default=0.0)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--ctl"), p.add_argument("--ready")
    args = p.parse_args()
    fds = [tun(args.ns_a, 1), tun(args.ns_b, 2)]
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: sys.exit(0))
    control = Control(args)
    link = Link(control, args.seed, fds)
    if args.ready:
        open(args.ready, "w").close()
    while True:
        control.look()
        ready = select.select(fds, [], [], link.wait())[0]
        now = time.monotonic()
        for fd in ready:
            for _ in range(256):
                try:
                    link.take(fds.index(fd), os.read(fd, 65536), now)
                except BlockingIOError:
                    break
        link.deliver()


if __name__ == "__main__":
    main()
