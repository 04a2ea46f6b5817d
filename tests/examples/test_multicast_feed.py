#!/usr/bin/env python3
"""Drives examples/multicast_feed.c with Python's sockets, socat and `ip maddr`, in a network of its
own if it may make one, else on the loopback interface."""
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

from common import (EMULATOR, LINUX, Run, Skip, WINE, check, check_equal, fact, folder, main,
                    native, program, run, tool)

GROUP, GROUP6, PORT = "239.1.1.1", "ff02::4242", 9999
INSIDE = os.environ.get("NETIO_INSIDE") == "1"  # in the network of our own


def enter_namespace():
    """Start this driver again where lo and a device d0 carry multicast; lo does not for IPv6."""
    if INSIDE or EMULATOR or not LINUX or not shutil.which("unshare") or not shutil.which("ip"):
        return
    command = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    script = ("ip link set lo up multicast on && ip link add d0 type veth peer name d1 && "
              "echo 0 >/proc/sys/net/ipv6/conf/d0/accept_dad && "
              "ip addr add 10.201.0.1/24 dev d0 && ip link set d1 up && ip link set d0 up && "
              "ip route add 224.0.0.0/4 dev lo && exec \"$@\"")
    prefix = command + ["sh", "-c", script, "sh"]
    if subprocess.run(prefix + ["true"], capture_output=True).returncode == 0:
        os.environ["NETIO_INSIDE"] = "1"
        os.rmdir(folder)  # the program that replaces this one makes its own
        os.execvp(prefix[0], prefix + [sys.executable, "-B"] + sys.argv)


enter_namespace()
PROGRAM = program("multicast_feed")


def need_inside():
    if not INSIDE:
        raise Skip("needs a network namespace of its own")


def address(group=GROUP, port=PORT):
    return "[%s]:%d" % (group, port) if ":" in group else "%s:%d" % (group, port)


def subscriber(*options, group=GROUP, port=0, device="127.0.0.1"):
    return Run([PROGRAM, "--if", device] + list(options) + [address(group, port)])


def need_sender():
    if WINE:
        raise Skip("Wine takes the interface to send by as an address only, not as a number")


def send_lines(lines, port, *options, group=GROUP, device="127.0.0.1"):
    code, out, err = run([PROGRAM, "--send", "--if", device] + list(options) +
                         [address(group, port)], "".join(line + "\n" for line in lines).encode())
    check_equal((0, "sent %d" % len(lines)), (code, out.decode().strip()), "sender (%s)" % err)


def feed_lines(p):
    """What was printed with a number in front, and the line of totals."""
    text = bytes(p.out).decode().replace("\r\n", "\n")
    totals = re.search(r"received (\d+), missed (\d+), late (\d+), foreign (\d+), "
                       r"dropped by the kernel (\S.*)", text)
    return re.findall(r"^\d+ .*$", text, re.M), totals and totals.groups()


def check_feed(p, lines, first=0):
    check_equal(0, p.wait(), "exit code (%s)" % bytes(p.err))
    printed, totals = feed_lines(p)
    check_equal(["%d %s" % (first + i, line) for i, line in enumerate(lines)], printed, "lines")
    check(totals, "no totals in %r" % bytes(p.out)[-200:])
    return totals


def sender(source="127.0.0.1", hops=1):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
    s.bind((source, 0))
    return s


def datagram(number, text=b"text\n", run_number=7):
    return b"feed" + struct.pack("!IQ", run_number, number) + text


def receiver():
    """A socket of Python's in the group, with the hops of what comes."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", 0))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                 socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1"))
    return s, s.getsockname()[1]


def check_several(lines, **where):
    need_sender()
    count = str(len(lines))
    with subscriber("--count", count, **where) as first:
        port = first.port()
        with subscriber("--count", count, **dict(where, port=port)) as second:
            second.port()
            send_lines(lines, port, **where)
            for p in (first, second):
                check_equal(("0", "0", "0"), check_feed(p, lines)[1:4], "missed, late, foreign")


@fact
def every_subscriber_on_one_port_gets_every_datagram():
    check_several(["line %d" % i for i in range(100)])


@native
def and_over_ipv6():
    need_inside()
    check_several(["line %d" % i for i in range(100)], group=GROUP6, device="d0")
    check_several(["by the zone"], group=GROUP6 + "%d0", device="d0")


@fact
def interface_by_name_number_and_address():
    need_inside()
    index = str(socket.if_nametoindex("d0"))
    for device in ("d0", index, "10.201.0.1"):
        check_several(["by " + device], device=device)
    for device in ("d0", index):
        check_several(["by " + device], group=GROUP6, device=device)


@native
def another_interface_hears_nothing():
    need_inside()
    with subscriber("--count", "1", device="lo") as p:
        send_lines(["not for you"], p.port(), device="d0")
        send_lines(["for you"], p.port(), device="lo")
        check_equal("0", check_feed(p, ["for you"])[3], "foreign")


@fact
def gaps_and_late_ones_are_told():
    with subscriber("--count", "5") as p, sender() as s:
        port = p.port()
        for number in (10, 11, 14, 13, 15, 15, 20):
            s.sendto(datagram(number), (GROUP, port))
        check_equal(0, p.wait(), "exit code")
        text = bytes(p.out).decode().replace("\r\n", "\n")
        check("gap: 12 to 13 are missing" in text, text)
        check("late or again: 13\n" in text and "late or again: 15\n" in text, text)
        check("gap: 16 to 19 are missing" in text, text)
        check_equal(("5", "6", "2", "0"), feed_lines(p)[1][:4], "totals")


@native
def a_gap_before_the_end_is_told():
    with subscriber() as p, sender() as s:
        port = p.port()
        s.sendto(datagram(0), (GROUP, port))
        s.sendto(datagram(3, b""), (GROUP, port))
        p.expect(b"gap: 1 to 2 are missing.*the feed ended")


@native
def drops_of_the_kernel_are_told():
    if not LINUX or EMULATOR:
        raise Skip("the counter is Linux's")
    count = 3000
    with subscriber("--buffer", "1") as p, sender() as s:
        port = p.port()
        s.sendto(datagram(0), (GROUP, port))
        p.expect(b"^0 text$|\n0 text\n")
        p.process.send_signal(signal.SIGSTOP)
        with open("/proc/%d/stat" % p.pid) as f:
            while f.read().split()[2] != "T":
                f.seek(0)
        for number in range(1, count):
            s.sendto(datagram(number, b"x" * 500), (GROUP, port))
        p.process.send_signal(signal.SIGCONT)
        # What shows the last of the gap has to come after there is room again.
        p.expect(b"\n1 xxx")
        s.sendto(datagram(count, b""), (GROUP, port))
        p.expect(b"the feed ended")
        check_equal(0, p.stop(), "exit code")
        lines, totals = feed_lines(p)
        received, missed, _, _, dropped = (int(n) for n in totals)
        check(dropped > 0, "no drops: %r" % (totals,))
        check_equal(count, received + missed, "received and missed")
        check_equal(missed, dropped, "what is missing was dropped by the kernel")


@fact
def source_filter_lets_one_sender_in():
    if WINE:
        raise Skip("Wine knows no source-specific membership")
    with subscriber("--source", "127.0.0.1", "--count", "2") as p:
        with sender("127.0.0.2") as other, sender() as ours:
            port = p.port()
            for number in (0, 1):
                other.sendto(datagram(number, b"other\n", 8), (GROUP, port))
                ours.sendto(datagram(number, b"ours\n"), (GROUP, port))
            check_equal("0", check_feed(p, ["ours", "ours"])[3], "foreign")


@native
def strange_datagrams_are_counted_and_dropped():
    with subscriber("--count", "3") as p, sender() as s, sender() as second:
        port = p.port()
        s.sendto(datagram(0), (GROUP, port))
        p.expect(b"0 text")
        for strange in (b"", b"feed", datagram(1)[:15], b"FEED" + datagram(1)[4:], b"x" * 60000):
            s.sendto(strange, (GROUP, port))
        second.sendto(datagram(9), (GROUP, port))  # a second feed is not mixed in
        s.sendto(datagram(1), (GROUP, port))
        if LINUX and not EMULATOR:
            s.sendto(datagram(5), ("127.0.0.1", port))  # to this machine, not to the group
        s.sendto(datagram(2, b"\x1b[2J \xff\n"), (GROUP, port))
        check_equal(0, p.wait(), "exit code")
        lines, totals = feed_lines(p)
        check_equal(["0 text", "1 text"], lines, "lines")
        check(b"\x1b" not in p.out, "commands to the terminal got through")
        check_equal(("3", "0", "0"), totals[:3], "totals")
        check_equal("7" if LINUX and not EMULATOR else "6", totals[3], "foreign")


@native
def a_feed_that_starts_again_is_followed():
    with subscriber("--count", "2") as p, sender() as s:
        port = p.port()
        s.sendto(datagram(100), (GROUP, port))
        p.expect(b"100 text")
        time.sleep(1.1)  # the silence is what is waited for
        s.sendto(datagram(0, run_number=8), (GROUP, port))
        check_equal(0, p.wait(), "exit code")
        check_equal(["100 text", "0 text"], feed_lines(p)[0], "lines")
        check_equal(("2", "0", "0", "0"), feed_lines(p)[1][:4], "totals")


@native
def what_is_sent_is_as_described():
    need_sender()
    s, port = receiver()
    with s:
        s.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_RECVTTL", 12), 1)
        for hops in (None, 5):
            send_lines(["one", "two"], port, *(["--hops", str(hops)] if hops else []))
            runs = set()
            for number, text in enumerate((b"one\n", b"two\n", b"")):
                data, extra, _, _ = s.recvmsg(100, 100)
                check_equal(b"feed", data[:4], "mark")
                runs.add(data[4:8])
                check_equal((number, text), (int.from_bytes(data[8:16], "big"), data[16:]), "it")
                check_equal(hops or 1, struct.unpack("i", extra[0][2])[0], "hops")
            check_equal(1, len(runs), "numbers of the run")


@fact
def count_ends_the_sender():
    need_sender()
    s, port = receiver()
    with s:
        code, out, err = run([PROGRAM, "--send", "--if", "127.0.0.1", "--count", "2",
                              address(port=port)], b"a\nb\nc\n")
        check_equal((0, b"sent 2"), (code, out.strip()), "sender (%s)" % err)


def memberships():
    out = subprocess.run(["ip", "maddr", "show", "dev", "lo"], capture_output=True).stdout
    return out.decode()


@native
def the_kernel_shows_the_membership_while_it_runs():
    if WINE or not LINUX:
        raise Skip("ip maddr is for Linux")
    tool("ip")
    check(GROUP not in memberships(), "somebody else is in %s" % GROUP)
    with subscriber() as p:
        p.port()
        check(GROUP in memberships(), "not joined: %s" % memberships())
        check_equal(0, p.stop(), "exit code")
        check(GROUP not in memberships(), "not left: %s" % memberships())


@native
def socat_as_the_receiver():
    need_sender()
    socat = tool("socat")
    spare, port = receiver()
    spare.close()
    source = "UDP4-RECV:%d,ip-add-membership=%s:127.0.0.1" % (port, GROUP)
    with Run([socat, "-u", "-d", "-d", source, "-"], emulate=False) as c:
        c.expect(b"starting data transfer", c.err)
        send_lines(["hello socat"], port)
        c.expect(b"hello socat")


@native
def socat_as_the_sender():
    socat = tool("socat")
    with subscriber("--count", "1") as p:
        to = "UDP4-DATAGRAM:%s:%d,ip-multicast-if=127.0.0.1" % (GROUP, p.port())
        code, _, err = run([socat, "-u", "-", to], datagram(4, b"from socat\n"), emulate=False)
        check_equal(0, code, "socat (%s)" % err)
        check_feed(p, ["from socat"], 4)


@native
def signals_end_it_cleanly():
    if WINE:
        raise Skip("no signals under Wine")
    for number in (signal.SIGTERM, signal.SIGINT):
        with subscriber() as p:
            p.port()
            check_equal(0, p.stop(number), "exit code")
            check(feed_lines(p)[1], "no totals: %r" % bytes(p.out))


@native
def what_is_wrong_is_said():
    for words, code, text in (
            (["127.0.0.1:9999"], 1, "invalid argument"), (["239.1.1.1"], 1, "invalid argument"),
            (["--if", "nope0", "239.1.1.1:9999"], 1, "no such network interface"),
            (["--source", "::1", "--if", "127.0.0.1", "239.1.1.1:0"], 1, "invalid argument"),
            ([], 2, "usage"), (["--count"], 2, "usage"),
            (["--count", "x", "239.1.1.1:1"], 2, "usage"),
            (["--nope", "239.1.1.1:1"], 2, "usage"), (["239.1.1.1:1", "239.1.1.1:1"], 2, "usage")):
        got, _, err = run([PROGRAM] + words)
        check_equal(code, got, "exit code of %r" % words)
        check(text in err, "%r: %r" % (words, err))


main("multicast_feed")
