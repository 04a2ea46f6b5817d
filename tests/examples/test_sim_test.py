#!/usr/bin/env python3
"""Drives examples/sim_test.c: what it finds, and that it finds the same again."""
import re
import time

from common import check, check_equal, fact, main, native, program, run

PROGRAM = program("sim_test")
LINE = (r"^(\S[^:]*\S) +seed (\d+): (\d+) of 50 answered, (\d+) counted, (\d+) requests, "
        r"([\d.]+) s( +<-- WRONG)?$")


def test(*words):
    code, out, err = run([PROGRAM] + list(words))
    check_equal("", err, "error output")
    return code, re.findall(LINE, out.decode().replace("\r\n", "\n"), re.M), out


@fact
def a_good_protocol_is_right_over_every_network():
    start = time.monotonic()
    code, lines, out = test()
    took = time.monotonic() - start
    check_equal(0, code, "exit code (%r)" % out)
    check_equal(20, len(lines), "lines of %r" % out)
    for network, _, answered, counted, requests, seconds, wrong in lines:
        check_equal(("50", "50", ""), (answered, counted, wrong), network)
        check(int(requests) >= 50, "requests in %r" % (lines,))
    virtual = sum(float(line[5]) for line in lines)
    check(virtual > 10 * took, "%.1f s of virtual time took %.1f s" % (virtual, took))


@native
def a_cut_network_costs_time_and_no_deposit():
    _, lines, _ = test("7")
    by_network = {line[0]: line for line in lines}
    check(float(by_network["cut for 5 s"][5]) > 5, repr(by_network))
    check(float(by_network["good"][5]) < 1, repr(by_network))
    check(int(by_network["lossy"][4]) > 60, repr(by_network))
    check_equal("50", by_network["good"][4], "requests over the good network")


@fact
def the_bug_is_found_but_not_over_a_good_network():
    code, lines, _ = test("--bug")
    check_equal(1, code, "exit code")
    wrong = {line[0] for line in lines if line[6]}
    check("lossy" in wrong and "reordering" in wrong and "good" not in wrong, repr(lines))
    check(all(int(line[3]) > 50 for line in lines if line[6]), "counted: %r" % (lines,))


@native
def a_seed_gives_the_same_again():
    all_lines = test("--bug")[1]
    seed = next(line[1] for line in all_lines if line[6])
    for _ in range(2):
        again = test("--bug", seed)
        check_equal(1, again[0], "exit code")
        check_equal([line for line in all_lines if line[1] == seed], again[1], "replayed")


@native
def another_seed_gives_something_else():
    check(test("1")[1][1][2:] != test("2")[1][1][2:], "two seeds, one story")


main("sim_test")
