#!/usr/bin/env python3
"""Drives examples/quickstart.c: it shows what it says, is quick, and fails when something does."""
import os
import re
import subprocess
import time

from common import (EMULATOR, SOURCE, Skip, check, check_equal, fact, main, native, need_ipv6,
                    need_unix, path, program, run)

PROGRAM = program("quickstart")


def check_show(code, out, err):
    """All acts, in order."""
    text = out.decode().replace("\r\n", "\n")
    check_equal((0, ""), (code, err), "exit code and error output of %r" % text)
    got = re.search(r"a server on (\S+), and its clients\n.*?"
                    r"25 clients sent 40 messages each: (\d+) right echoes in (\d+) ms, "
                    r"(\d+) a second\.\n"
                    r"One client too many was told \"full, come back later\"\.\n"
                    r"After 1000 ms of silence the server hung up on all of them\.\n", text, re.S)
    check(got, "not the show: %r" % text)
    check_equal(1000, int(got.group(2)), "echoes")
    ms, rate = int(got.group(3)), int(got.group(4))
    check(abs(rate * ms / 1000 - 1000) <= (rate + ms) / 1000 + 1, "rate %d of %d ms" % (rate, ms))
    return got.group(1)


@fact
def shows_a_server_and_its_clients():
    start = time.monotonic()
    address = check_show(*run([PROGRAM]))
    check(0.99 < time.monotonic() - start < 25, "took %.1f s" % (time.monotonic() - start))
    check(re.fullmatch(r"127\.0\.0\.1:\d+", address), address)


@fact
def works_over_ipv6():
    need_ipv6()
    address = check_show(*run([PROGRAM, "[::1]:0"]))
    check(re.fullmatch(r"\[::1\]:\d+", address), address)


@native
def works_over_a_unix_socket_and_leaves_no_file():
    need_unix()
    name = path("quick.sock")
    check_equal("unix:" + name, check_show(*run([PROGRAM, "unix:" + name])), "address")
    check(not os.path.exists(name), "the file is left")


@native
def ends_with_what_to_try_next():
    _, out, _ = run([PROGRAM])
    tail = out.decode().replace("\r\n", "\n").split("\n\n")[-1]
    check("examples/tcp_echo_server.c" in tail and re.search(r"^\s*nc ", tail, re.M), repr(tail))


@fact
def fails_with_the_reason():
    code, _, err = run([PROGRAM, "127.0.0.1:99999"])
    check_equal(1, code, "exit code")
    check(err.startswith("quickstart: 127.0.0.1:99999: "), repr(err))


@native
def one_command_compiles_and_runs_it():
    if EMULATOR:
        raise Skip("the script is for this system's compiler")
    script = os.path.join(SOURCE, "examples", "run.sh")
    done = subprocess.run(["sh", script], capture_output=True, timeout=120)
    text = done.stdout.decode()
    check("quickstart.c -o quickstart" in text.split("\n")[0], repr(text))
    check_show(done.returncode, text.partition("\n")[2].encode(), done.stderr.decode())


main("quickstart")
