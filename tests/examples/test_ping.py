#!/usr/bin/env python3
"""Drives examples/ping.c, in a network of its own where that can be made: what it sends is seen by
Python's packet sockets, what it captures is what tcpdump reads, its times are those of `ping`."""
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

from common import (EMULATOR, LINUX, WINE, Run, Skip, check, check_equal, check_idle, fact, folder,
                    main, path, payload, program, run, tool)

INSIDE = os.environ.get("NETIO_INSIDE") == "1"  # in the network of our own
EVERYBODY, NOBODY = "0 2147483647", "1 0"       # who may open ICMP datagram sockets


def enter_namespace():
    """Start this driver again with a loopback interface and a link of its own."""
    if INSIDE or EMULATOR or not LINUX or not shutil.which("unshare") or not shutil.which("ip"):
        return
    command = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    script = ("ip link set lo up && ip link add d0 type veth peer name d1 && "
              "ip addr add 10.201.0.1/24 dev d0 && ip link set d0 up && ip link set d1 up && "
              "exec \"$@\"")
    prefix = command + ["sh", "-c", script, "sh"]
    if subprocess.run(prefix + ["true"], capture_output=True).returncode == 0:
        os.environ["NETIO_INSIDE"] = "1"
        os.rmdir(folder)  # the program that replaces this one makes its own
        os.execvp(prefix[0], prefix + [sys.executable, "-B"] + sys.argv)


enter_namespace()
PROGRAM = program("ping")


def allow(groups):
    """Say which groups may open ICMP datagram sockets."""
    if not INSIDE:
        raise Skip("needs a network namespace of its own")
    try:
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as f:
            f.write(groups)
    except OSError:
        pass  # what counts is what comes of it
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
        allowed = EVERYBODY
    except PermissionError:
        allowed = NOBODY
    if allowed != groups:
        raise Skip("net.ipv4.ping_group_range cannot be set to %s" % groups)


def need_raw():
    if not LINUX or EMULATOR:
        raise Skip("raw sockets are tested on Linux")
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    except OSError as e:
        raise Skip("no right to open raw sockets: %s" % e)


def need_link_level():
    need_raw()
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except OSError as e:
        raise Skip("no packet sockets: %s" % e)


def ping(*words, **more):
    return run([PROGRAM] + list(words), **more)


def check_times(out, count):
    text = out.decode()
    got = re.search(r"(\d+) sent, (\d+) received; round trip min ([\d.]+), average ([\d.]+), "
                    r"max ([\d.]+) ms", text)
    check(got, "no summary in %r" % text)
    check_equal((count, count), (int(got.group(1)), int(got.group(2))), "sent and received")
    least, average, most = (float(g) for g in got.groups()[2:])
    check(0 < least <= average <= most < 1000, "times: %r" % text)
    times = [float(t) for t in re.findall(r"number \d+, .*?([\d.]+) ms\n", text)]
    check_equal(count, len(times), "lines in %r" % text)
    check_equal((least, most), (min(times), max(times)), "min and max")
    check(abs(average - sum(times) / count) < 0.002, "average of %r: %f" % (times, average))


def check_ping(how, *words, count=3):
    code, out, err = ping("-c", str(count), "-i", "10", *words)
    check_equal(0, code, "exit code (%s)" % err)
    check(how in out, "wanted %r: %r" % (how, out))
    check_times(out, count)


@fact
def an_icmp_datagram_socket_comes_first():
    allow(EVERYBODY)
    check_ping(b"by an ICMP datagram socket", "127.0.0.1")
    check_ping(b"by an ICMP datagram socket", "localhost", "-4")
    check_ping(b"by an ICMP datagram socket", "::1")


@fact
def a_raw_socket_is_next():
    need_raw()
    allow(NOBODY)
    check_ping(b"by a raw socket", "127.0.0.1")
    check_ping(b"by a raw socket", "::1")


@fact
def a_header_made_by_hand_is_answered():
    need_raw()
    check_ping(b"by a raw socket", "-H", "127.0.0.1")


def as_nobody():
    """What makes a child a user without rights."""
    if not LINUX or EMULATOR or os.geteuid() != 0:
        raise Skip("only root can become somebody else")
    try:
        user = pwd.getpwnam("nobody")
        if subprocess.run(["true"], preexec_fn=lambda: os.setresuid(*[user.pw_uid] * 3)).returncode:
            raise OSError("it failed")
    except (KeyError, OSError, subprocess.SubprocessError) as e:
        raise Skip("cannot become nobody: %s" % e)

    def become():
        os.setgroups([])
        os.setresgid(*[user.pw_gid] * 3)
        os.setresuid(*[user.pw_uid] * 3)
    return become


def readable_copy():
    """The program where everybody may read it."""
    os.chmod(folder, 0o755)
    copy = path("ping-for-all")
    shutil.copy(PROGRAM, copy)
    os.chmod(copy, 0o755)
    return copy


@fact
def without_rights_it_says_what_is_missing():
    become = as_nobody()
    allow(NOBODY)
    copy = readable_copy()
    for host in ("127.0.0.1", "::1"):
        code, out, err = run([copy, "-c", "1", host], preexec_fn=become)
        check_equal((2, b""), (code, out), "result")
        check("no permission" in err and "ping_group_range" in err and "cap_net_raw" in err, err)
    code, out, err = run([copy, "--capture", "lo"], preexec_fn=become)
    check_equal((2, b""), (code, out), "result of capturing")
    check("no permission to capture" in err, err)


@fact
def without_rights_the_datagram_socket_does():
    become = as_nobody()
    allow(EVERYBODY)
    copy = readable_copy()
    code, out, err = run([copy, "-c", "2", "-i", "10", "127.0.0.1"], preexec_fn=become)
    check_equal(0, code, "exit code (%s)" % err)
    check_times(out, 2)


def sniffer():
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    s.settimeout(10)
    return s


def inet_sum(data):
    """RFC 1071, over data that holds its own checksum: 0 if that is right."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


@fact
def requests_are_what_the_rfc_says():
    need_raw()
    if not INSIDE:
        raise Skip("others may ping too")
    for words in ([], ["-H"]):
        allow(NOBODY)
        with sniffer() as s:
            code, _, err = ping("-c", "2", "-i", "1", "127.0.0.1", *words)
            check_equal(0, code, "exit code (%s)" % err)
            requests = []
            while len(requests) < 2:
                packet = s.recv(2000)
                check_equal(84, len(packet), "bytes of the packet")
                check_equal(0, inet_sum(packet[:20]), "checksum of the header")
                check_equal(0, inet_sum(packet[20:]), "checksum")
                if packet[20] == 8:
                    requests.append(packet[20:])
            for number, icmp in enumerate(requests, 1):
                check_equal((8, 0, number), struct.unpack("!BB4xH", icmp[:8]), "head")
            check_equal(requests[0][4:6], requests[1][4:6], "identification")


@fact
def forged_answers_do_not_count():
    need_raw()
    allow(NOBODY)
    if not INSIDE:
        raise Skip("nobody is at 10.201.0.9 in a network of our own only")
    subprocess.check_call(["ip", "neigh", "replace", "10.201.0.9", "lladdr", "02:00:00:00:00:09",
                           "dev", "d0"])
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.settimeout(10)
    wire.bind(("d1", 3))
    with wire, Run([PROGRAM, "-c", "1", "-w", "700", "10.201.0.9"]) as p:
        while True:
            frame = wire.recv(2000)
            if frame[12:14] == b"\x08\0" and frame[23] == 1 and frame[34] == 8:
                break

        def reply(kind, icmp):
            icmp = bytes([kind, 0, 0, 0]) + icmp
            icmp = icmp[:2] + struct.pack("!H", inet_sum(icmp)) + icmp[4:]
            head = bytearray(frame[14:34])
            head[2:4] = struct.pack("!H", 20 + len(icmp))
            head[12:16], head[16:20], head[10:12] = head[16:20], head[12:16], b"\0\0"
            head[10:12] = struct.pack("!H", inet_sum(bytes(head)))
            wire.send(frame[6:12] + frame[:6] + b"\x08\0" + bytes(head) + icmp)
        asked = frame[38:14 + 84]
        reply(0, asked[:4] + b"XXXX" + asked[8:])                   # not our token
        reply(0, asked[:2] + b"\0\x07" + asked[4:])                 # another number
        reply(0, asked[:20])                                        # too short
        reply(8, asked)                                             # a request
        reply(3, b"\0\0\0\0" + b"\x45")                             # an error about nothing
        reply(11, b"\0\0\0\0" + frame[14:34] + b"\x08\0\0\0\0\0\0\0")  # about somebody else's
        check_equal(1, p.wait(), "exit code")
        check(b"number 1: timed out" in p.out and b"1 sent, 0 received\n" in p.out, bytes(p.out))


@fact
def what_routers_say_is_shown():
    need_raw()
    allow(NOBODY)
    if not INSIDE:
        raise Skip("needs a network namespace of its own")
    subprocess.check_call(["ip", "neigh", "replace", "10.201.0.8", "lladdr", "02:00:00:00:00:08",
                           "dev", "d0"])
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.settimeout(10)
    wire.bind(("d1", 3))
    with wire, Run([PROGRAM, "-c", "1", "10.201.0.8"]) as p:
        while True:
            frame = wire.recv(2000)
            if frame[12:14] == b"\x08\0" and frame[23] == 1 and frame[34] == 8:
                break
        icmp = bytes([11, 0, 0, 0, 0, 0, 0, 0]) + frame[14:42]
        icmp = icmp[:2] + struct.pack("!H", inet_sum(icmp)) + icmp[4:]
        head = bytearray(frame[14:34])
        head[2:4] = struct.pack("!H", 20 + len(icmp))
        head[12:20] = socket.inet_aton("10.201.0.254") + bytes(head[12:16])
        head[10:12] = b"\0\0"
        head[10:12] = struct.pack("!H", inet_sum(bytes(head)))
        wire.send(frame[6:12] + frame[:6] + b"\x08\0" + bytes(head) + icmp)
        check_equal(1, p.wait(), "exit code")
        check(b"10.201.0.254 says: number 1 did not arrive (ICMP type 11, code 0)" in p.out,
              bytes(p.out))


@fact
def a_host_that_is_not_there_is_exit_code_1():
    for groups in (NOBODY, EVERYBODY):
        if groups == NOBODY:
            need_raw()
        allow(groups)
        code, out, err = ping("-c", "2", "-i", "1", "-w", "100", "10.201.0.7")
        check_equal(1, code, "exit code (%s)" % err)
        check(b"2 sent, 0 received\n" in out and out.count(b"number ") == 2, out)


@fact
def no_route_is_said():
    for groups in (NOBODY, EVERYBODY):
        if groups == NOBODY:
            need_raw()
        allow(groups)
        code, out, err = ping("-c", "1", "198.51.100.1")
        check(code in (1, 2) and ("network unreachable" in err or b"network unreachable" in out),
              "%d %r %r" % (code, out, err))


@fact
def answers_are_shown_byte_by_byte():
    need_raw()
    allow(NOBODY)
    code, out, err = ping("-c", "1", "-x", "127.0.0.1")
    check_equal(0, code, "exit code (%s)" % err)
    rows = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)  +(.*)$", out.decode(), re.M)
    data = bytes.fromhex("".join(r[1] for r in rows))
    check_equal(84, len(data), "bytes shown")
    check_equal((0x45, 0, bytes(range(12, 64))), (data[0], data[20], data[32:]), "bytes")
    check_equal(0, inet_sum(data[20:]), "checksum")


def captured(out):
    """Frames as (line, bytes) from what a capture printed."""
    frames = []
    for line in out.decode().replace("\r\n", "\n").split("\n"):
        if re.match(r"\d+: \d+ bytes (in|out)", line):
            frames.append([line, b""])
        row = re.match(r"[0-9a-f]{4,}  ((?:[0-9a-f]{2} ){0,15}[0-9a-f]{2}) ", line)
        if row:
            frames[-1][1] += bytes.fromhex(row.group(1).replace(" ", ""))
    for line, data in frames:
        check_equal(int(line.split()[1]), len(data), "bytes of %r" % line)
    return frames


def capture(count, *words, device="lo"):
    need_link_level()
    if not INSIDE:
        raise Skip("others may send too")
    return Run([PROGRAM, "--capture", device, "-c", str(count)] + list(words))


def send_udp(data, to="127.0.0.1"):
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as a, \
            socket.socket(family, socket.SOCK_DGRAM) as b:
        a.bind((to, 0))
        b.bind((to, 0))
        a.sendto(data, b.getsockname()[:2])
        return a.getsockname()[1], b.getsockname()[1]


def ready(p):
    p.expect(b"listening on")


@fact
def own_datagrams_are_captured_and_decoded():
    for to, name, head in (("127.0.0.1", "IPv4 127.0.0.1:%d > 127.0.0.1:%d hops 64", 42),
                           ("::1", "IPv6 [::1]:%d > [::1]:%d hops 64", 62)):
        for size in (1, 0, 15, 1472, 9000):
            with capture(1) as p:
                ready(p)
                data = payload(size)
                ports = send_udp(data, to)
                check_equal(0, p.wait(), "exit code (%s)" % bytes(p.err))
                [(line, frame)] = captured(p.out)
                check_equal(head + size, len(frame), "bytes")
                check_equal(data, frame[head:], "payload")
                check(name % ports in line, line)
                check(line.endswith(" UDP length %d" % (8 + size)), line)
                check(" Ethernet 00:00:00:00:00:00 > 00:00:00:00:00:00 " in line, line)
                check(b"1 packets, 0 dropped by the kernel" in p.out, bytes(p.out)[-100:])


@fact
def a_tcp_connection_is_decoded():
    with socket.socket() as listener, capture(3) as p:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ready(p)
        with socket.socket() as s:
            s.connect(listener.getsockname())
            check_equal(0, p.wait(), "exit code")
            ports = s.getsockname()[1], listener.getsockname()[1]
        lines = [line for line, _ in captured(p.out)]
        there = "IPv4 127.0.0.1:%d > 127.0.0.1:%d hops 64 TCP " % ports
        back = "IPv4 127.0.0.1:%d > 127.0.0.1:%d hops 64 TCP " % ports[::-1]
        first = int(re.search(r"seq (\d+)", lines[0]).group(1))
        second = (first + 1) % 2**32
        check(there + "S seq %d ack 0 window " % first in lines[0], lines[0])
        check(back + "SA seq " in lines[1] and " ack %d " % second in lines[1], lines[1])
        check(there + "A seq %d " % second in lines[2], lines[2])


@fact
def both_directions_of_a_link_are_captured():
    with capture(2, device="d0") as p:
        ready(p)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind(("d0", 0))
            s.send(b"\xff" * 6 + b"\2\0\0\0\0\1" + b"\x08\x06" + b"an ARP packet, out")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind(("d1", 0))
            s.send(b"\xff" * 6 + b"\2\0\0\0\0\2" + b"\x88\xb5" + b"in")
        check_equal(0, p.wait(), "exit code")
        (one, _), (two, frame) = captured(p.out)
        check("out Ethernet 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff type 0806" in one, one)
        check("in Ethernet 02:00:00:00:00:02 > ff:ff:ff:ff:ff:ff type 88b5" in two, two)
        check_equal(b"in", frame[14:16], "payload")


@fact
def nonsense_frames_are_shown_without_harm():
    frames = [b"", b"\x45", b"\x45" + b"\xff" * 18, b"\x4f" + b"\0" * 19, b"\x41" + b"\0" * 30,
              b"\x45" + b"\xff" * 60, b"\x60" + b"\xff" * 38, b"\x60" + b"\xff" * 60,
              b"\x45\0\0\0" + b"\0" * 5 + b"\x06" + b"\0" * 12, b"\x00" * 60,
              b"\x45\0\0\x14\0\0\x1f\xff\0\x11" + b"\0" * 30]
    with capture(2 * len(frames), device="d0") as p:
        ready(p)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind(("d1", 0))
            for kind in (b"\x08\0", b"\x86\xdd"):
                for frame in frames:
                    s.send(b"\xff" * 6 + b"\2\0\0\0\0\2" + kind + frame)
        check_equal(0, p.wait(), "exit code (%s)" % bytes(p.err))
        got = captured(p.out)
        for i, (line, data) in enumerate(got):
            check_equal(frames[i % len(frames)], data[14:14 + len(frames[i % len(frames)])], line)


def read_pcap(name):
    with open(name, "rb") as f:
        data = f.read()
    magic, major, minor, _, _, _, link = struct.unpack("IHHIIII", data[:24])
    check_equal((0xA1B2C3D4, 2, 4), (magic, major, minor), "head of the file")
    frames, at = [], 24
    while at < len(data):
        seconds, micros, have, whole = struct.unpack("IIII", data[at:at + 16])
        check_equal(whole, have, "length of a frame")
        frames.append((seconds + micros / 1e6, data[at + 16:at + 16 + have]))
        at += 16 + have
    return link, frames


@fact
def the_file_opens_in_tcpdump():
    name = path("lo.pcap")
    start = time.time()
    with capture(3, "--pcap", name) as p:
        ready(p)
        ports = [send_udp(b"%d" % i * (i + 1)) for i in range(2)] + [send_udp(b"six", "::1")]
        check_equal(0, p.wait(), "exit code (%s)" % bytes(p.err))
    link, frames = read_pcap(name)
    check_equal(1, link, "link type")
    check_equal([f for _, f in captured(p.out)], [f for _, f in frames], "frames of the file")
    for when, _ in frames:
        check(start - 1 <= when <= time.time() + 1, "time %f, began at %f" % (when, start))
    code, out, err = run([tool("tcpdump"), "-n", "-tt", "-r", name], emulate=False)
    if "Couldn't change to" in err:
        raise Skip("tcpdump drops rights that only root of the machine has")
    check_equal(0, code, "tcpdump (%s)" % err)
    check("Ethernet" in err, err)
    lines = out.decode().splitlines()
    check_equal(3, len(lines), "lines")
    for i, line in enumerate(lines):
        words = ("127.0.0.1.%d > 127.0.0.1.%d" if i < 2 else "::1.%d > ::1.%d") % ports[i]
        check("%s: UDP, length %d" % (words, i + 1) in line, line)
        check(abs(float(line.split()[0]) - frames[i][0]) < 1e-5, "time in %r" % line)


@fact
def tunnels_have_no_link_header():
    if not INSIDE or not os.path.exists("/dev/net/tun"):
        raise Skip("needs /dev/net/tun and a network namespace of its own")
    need_link_level()
    import fcntl
    name = path("tun.pcap")
    try:
        tun = os.open("/dev/net/tun", os.O_RDWR)
    except OSError as e:
        raise Skip("/dev/net/tun: %s" % e)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH", b"t0", 0x1001))  # a tunnel, bare packets
    subprocess.check_call(["ip", "addr", "add", "10.202.0.1/24", "dev", "t0"])
    with open("/proc/sys/net/ipv6/conf/t0/disable_ipv6", "w") as f:
        f.write("1")  # or it would announce itself
    subprocess.check_call(["ip", "link", "set", "t0", "up"])
    with capture(1, "--pcap", name, device="t0") as p:
        ready(p)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"through the tunnel", ("10.202.0.9", 7))
        check_equal(0, p.wait(), "exit code (%s)" % bytes(p.err))
        [(line, frame)] = captured(p.out)
        words = r"out IPv4 10\.202\.0\.1:\d+ > 10\.202\.0\.9:7 hops 64 UDP length 26$"
        check(re.search(words, line), line)
        link, [(_, saved)] = read_pcap(name)
        check_equal((101, frame), (link, saved), "file")
    os.close(tun)


@fact
def an_interface_that_vanishes_is_said():
    need_link_level()
    if not INSIDE:
        raise Skip("needs a network namespace of its own")
    subprocess.check_call(["ip", "link", "add", "g0", "type", "veth", "peer", "name", "g1"])
    subprocess.check_call(["ip", "link", "set", "g0", "up"])
    with Run([PROGRAM, "--capture", "g0"]) as p:
        ready(p)
        subprocess.check_call(["ip", "link", "del", "g0"])
        check_equal(2, p.wait(), "exit code")
        check(b"network is down" in p.err or b"network down" in p.err, bytes(p.err))


@fact
def signals_end_it_with_a_summary():
    if WINE:
        raise Skip("no signals under Wine")
    need_raw()
    for number in (signal.SIGINT, signal.SIGTERM):
        with Run([PROGRAM, "-c", "0", "-i", "20", "127.0.0.1"]) as p:
            p.expect(b"number 3, ")
            check_equal(0, p.stop(number), "exit code")
            check(re.search(rb"(\d+) sent, \1 received; round trip", p.out), bytes(p.out))
        with Run([PROGRAM, "--capture", "lo"]) as p:
            ready(p)
            check_equal(0, p.stop(number), "exit code of capturing")
            check(b" packets, " in p.out, bytes(p.out))


@fact
def the_pause_is_no_load():
    need_raw()
    allow(NOBODY)
    with Run([PROGRAM, "-c", "0", "-i", "60000", "127.0.0.1"]) as p, sniffer() as s:
        p.expect(b"number 1, ")
        for i in range(50):  # raw sockets hear those of others, too
            icmp = struct.pack("!BBHHH", 8, 0, 0, 77, i)
            s.sendto(icmp[:2] + struct.pack("!H", inet_sum(icmp)) + icmp[4:], ("127.0.0.1", 0))
        check_idle(p.pid)


@fact
def the_system_s_ping_agrees():
    need_raw()
    tool("ping")
    code, out, err = run([tool("ping"), "-n", "-c", "2", "-i", "0.2", "127.0.0.1"], emulate=False)
    if code:
        raise Skip("ping does not work here: %s" % err)
    theirs = float(re.search(r"= [\d.]+/([\d.]+)/", out.decode()).group(1))
    code, out, err = ping("-c", "5", "-i", "20", "127.0.0.1")
    ours = float(re.search(r"average ([\d.]+)", out.decode()).group(1))
    check(ours < theirs + 20 and theirs < ours + 20, "average %f, the system's %f" % (ours, theirs))


@fact
def it_captures_what_the_system_s_ping_sends():
    with capture(2) as p:
        ready(p)
        code, _, err = run([tool("ping"), "-n", "-c", "1", "127.0.0.1"], emulate=False)
        check_equal(0, code, "ping (%s)" % err)
        check_equal(0, p.wait(), "exit code")
        asked, answered = (line for line, _ in captured(p.out))
        check(asked.endswith("ICMP type 8 code 0"), asked)
        check(answered.endswith("ICMP type 0 code 0"), answered)


@fact
def what_is_wrong_is_said():
    for words, code, text in (
            (["no-such-host.invalid"], 2, "no-such-host.invalid: "), ([], 2, "usage"),
            (["-c"], 2, "usage"), (["-c", "x", "::1"], 2, "usage"), (["-z", "::1"], 2, "usage"),
            (["::1", "::1"], 2, "usage"), (["--pcap", "f", "::1"], 2, "usage"),
            (["--capture", "lo", "::1"], 2, "usage")):
        got, _, err = ping(*words)
        check_equal(code, got, "exit code of %r" % words)
        check(text in err, "%r: %r" % (words, err))
    got, _, err = ping("--capture", "nope0")
    check_equal(2, got, "exit code")
    check("no such network interface" in err or "tcpdump" in err, err)
    if LINUX and not EMULATOR and INSIDE:
        need_link_level()
        got, _, err = ping("--capture", "lo", "--pcap", "/nonexistent/x")
        check_equal((2, True), (got, "/nonexistent/x" in err), "file that cannot be (%s)" % err)
        if os.path.exists("/dev/full"):
            got, _, err = ping("--capture", "lo", "--pcap", "/dev/full")
            check_equal((2, True), (got, "/dev/full" in err), "full disk (%s)" % err)


main("ping")
