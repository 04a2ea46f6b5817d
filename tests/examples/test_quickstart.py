#!/usr/bin/env python3
"""Drives examples/quickstart.c: it shows each family that this machine has, and is quick."""
import os
import re
import shutil
import subprocess
import time

from common import (EMULATOR, Skip, check, check_equal, fact, folder, main, need_ipv6, need_unix,
                    path, program, run)

PROGRAM = program("quickstart")
TRANSPORTS = ("TCP, IPv4", "TCP, IPv6", "UDP", "Unix socket")


def sections(text):
    """The output's paragraphs by transport."""
    found = {}
    for part in text.split("\n\n"):
        found[part.split(":", 1)[0].strip()] = part
    return found


def check_exchange(part, name):
    check("Hello over %s!" % name in part, "no question in %r" % part)
    check("HELLO OVER %s!" % name.upper() in part, "no answer in %r" % part)
    times = re.search(r"(\d+) round trips .* min (\d+), average ([\d.]+), max (\d+)", part)
    check(times, "no times in %r" % part)
    rounds, least, average, most = (float(g) for g in times.groups())
    check(1 <= rounds <= 1000, "rounds: %r" % part)
    check(0 < average and least <= average <= most, "times out of order: %r" % part)


@fact
def shows_every_family_of_this_machine():
    start = time.monotonic()
    code, out, err = run([PROGRAM])
    check(time.monotonic() - start < 10, "took %.1f s" % (time.monotonic() - start))
    check_equal(0, code, "exit code (%s)" % err)
    found = sections(out.decode().replace("\r\n", "\n"))
    for name, need in zip(TRANSPORTS, (None, need_ipv6, None, need_unix)):
        check(name in found, "no %s in %r" % (name, out))
        try:
            if need:
                need()
        except Skip:
            continue  # what the program says about it is another check's matter
        check_exchange(found[name], name)


@fact
def ends_with_what_to_try_next():
    _, out, _ = run([PROGRAM])
    tail = out.decode().replace("\r\n", "\n").split("\n\n")[-1]
    check("examples/tcp_echo_server.c" in tail and re.search(r"^\s*nc ", tail, re.M), repr(tail))


@fact
def leaves_no_socket_file_behind():
    need_unix()
    place = path("tmp")
    os.mkdir(place)
    code, out, _ = run([PROGRAM], env=dict(os.environ, TMPDIR=place))
    check_equal(0, code, "exit code")
    check_exchange(sections(out.decode())["Unix socket"], "Unix socket")
    check_equal([], os.listdir(place), "files left")


@fact
def goes_on_without_a_folder_for_unix_sockets():
    need_unix()
    code, out, _ = run([PROGRAM], env=dict(os.environ, TMPDIR=path("missing")))
    check_equal(0, code, "exit code")
    found = sections(out.decode())
    check("not on this machine" in found["Unix socket"], repr(out))
    check_exchange(found["UDP"], "UDP")


def in_namespace(script):
    """Run a shell script with $1, the program, in a network of its own."""
    if EMULATOR:
        raise Skip("namespaces are for programs of Linux")
    if not shutil.which("unshare") or not shutil.which("ip"):
        raise Skip("needs unshare and ip (util-linux, iproute2)")
    command = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    trial = subprocess.run(command + ["ip", "link", "set", "lo", "up"], capture_output=True)
    if trial.returncode:
        raise Skip("may not make a network namespace: %s" % trial.stderr.decode().strip())
    return run(command + ["sh", "-c", script, "sh", PROGRAM], emulate=False,
               env=dict(os.environ, TMPDIR=folder))


@fact
def says_that_ipv6_is_missing():
    code, out, err = in_namespace(
        "ip link set lo up && echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 && exec \"$1\"")
    if "ipv6" in err:
        raise Skip("cannot switch IPv6 off: %s" % err.strip())
    check_equal(0, code, "exit code (%s)" % err)
    found = sections(out.decode())
    check("not on this machine" in found["TCP, IPv6"], repr(out))
    check_exchange(found["TCP, IPv4"], "TCP, IPv4")


@fact
def fails_when_an_exchange_fails():
    # Without any network sockets can be made and bound, but reach nobody.
    code, out, _ = in_namespace("exec \"$1\"")
    check_equal(1, code, "exit code")
    check("failed: network unreachable" in sections(out.decode())["UDP"], repr(out))


main("quickstart")
