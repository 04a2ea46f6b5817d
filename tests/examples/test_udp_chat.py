#!/usr/bin/env python3
"""Drives examples/udp_chat.c with Python's sockets and three netcats."""
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time

from common import (EMULATOR, LINUX, Run, SOURCE, Skip, WINE, check, check_equal, check_idle, fact,
                    main, memory_kib, native, need_ipv6, openbsd_nc, path, program, run, tool)

PROGRAM = program("udp_chat")


def server(*words):
    return Run([PROGRAM] + list(words or ["127.0.0.1:0"]))


class Client:
    """One address. `join` takes both steps; `hear` is the next line, `silent`: there is none."""

    def __init__(self, port, host="127.0.0.1", source=None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.s = socket.socket(family, socket.SOCK_DGRAM)
        if source:
            self.s.bind((source, 0))
        self.s.connect((host, port))
        self.s.settimeout(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def say(self, text):
        self.s.send(text if isinstance(text, bytes) else text.encode())
        return self

    def hear(self):
        data = self.s.recv(1 << 16)
        check(data.endswith(b"\n") and data.count(b"\n") == 1, "no line: %r" % data)
        return data.decode().rstrip("\n")

    def silent(self):
        """Nothing was sent here before the answer to what nobody else is told."""
        self.say("/nothing\n")
        check("there are /join" in self.hear(), "something came")

    def ask(self, name):
        """First step: the line with the cookie."""
        answer = self.say("/join %s\n" % name).hear()
        check(re.fullmatch(r"\* /join %s [0-9a-f]{12}" % name, answer), repr(answer))
        return answer[2:]

    def join(self, name):
        line = self.ask(name)
        answer = self.say(line + "\n").hear()
        check(re.fullmatch(r"\* welcome, \d+ here", answer), repr(answer))
        return self


def who(client):
    answer = client.say("/who\n").hear()
    check(answer.startswith("*"), answer)
    return answer.split()[1:]


@fact
def what_one_says_goes_to_all_others():
    with server() as p:
        port = p.port()
        with Client(port) as ann, Client(port) as bob, Client(port) as eve:
            ann.join("ann")
            bob.join("bob")
            check_equal("* bob joined", ann.hear(), "to ann")
            eve.join("eve")
            check_equal("* eve joined", ann.hear(), "to ann")
            check_equal("* eve joined", bob.hear(), "to bob")
            check_equal(["ann", "bob", "eve"], who(bob), "names")
            for text in ("hello", "gr\u00fc\u00df dich \U0001f600", "x" * 511, "/ is a slash"[1:]):
                bob.say(text + "\n")
                check_equal("bob: " + text, ann.hear(), "to ann")
                check_equal("bob: " + text, eve.hear(), "to eve")
            bob.silent()
            eve.say("/leave\n")
            for client in (ann, bob):
                check_equal("* eve left", client.hear(), "news")
            ann.say("two of us")
            check_equal("ann: two of us", bob.hear(), "to bob")
            check_equal("* first say /join NAME", eve.say("still here?").hear(), "to eve")


@fact
def strangers_must_join_first():
    with server() as p:
        port = p.port()
        with Client(port) as ann, Client(port) as stranger:
            ann.join("ann")
            for text in ("let me in", "/who is there", "/leave now"):
                check_equal("* first say /join NAME", stranger.say(text).hear(), "answer")
            ann.silent()
            check_equal(["ann"], who(ann), "names")


@native
def answers_to_strangers_are_short():
    with server() as p, Client(p.port()) as c:
        for text in (b"", b"x", b"\n", b"hi\n", b"/join a", b"/join ab", b"/join abcdefgh\n",
                     b"/join " + b"n" * 16 + b"\n", b"/who\n", b"/leave\n", b"question", b"x" * 99):
            c.say(text).say("/join marker\n")  # which is answered in any case
            sizes = []
            while True:
                answer = c.s.recv(1 << 16)
                if b"/join marker" in answer:
                    break
                sizes.append(len(answer))
            check(len(sizes) <= 1 and sum(sizes) <= 3 * len(text), "%r: %r" % (text, sizes))


@native
def forged_joins_leave_no_trace():
    with server() as p, Client(p.port()) as ann:
        port = p.port()
        ann.join("ann")
        with Client(port) as c:  # what the first of a kind touches is no trace
            c.say("/join forged 0123456789ab\n").ask("forged")
        check_equal(["ann"], who(ann), "names")
        before = memory_kib(p.pid) if LINUX and not EMULATOR else 0
        count = 0
        # Each sends once and never hears the answer, as somebody does who forges addresses.
        hosts = 1 if EMULATOR else 10  # an emulator takes its time for each
        for a in range(1, hosts + 1):
            for i in range(100):
                if i % 10 == 0:
                    check_equal(["ann"], who(ann), "names")  # and what came before is done with
                with Client(port, source="127.0.%d.%d" % (a, a) if LINUX else None) as c:
                    for n in range(10):
                        c.say("/join forged%d\n" % count if n % 2 else
                              "/join forged%d 0123456789ab\n" % count)
                        count += 1
        check_equal(1000 * hosts, count, "joins")
        check_equal(["ann"], who(ann), "names")
        if before:
            grown = memory_kib(p.pid) - before
            check(grown < 512, "grew by %d KiB" % grown)  # 10,000 peers would take megabytes
        check(p.process.poll() is None, "it ended")


@native
def bad_cookies_are_dropped_without_a_word():
    with server() as p:
        port = p.port()
        with Client(port) as ann, Client(port) as other:
            line = ann.ask("ann")
            digit = "1" if line[-1] == "0" else "0"
            for bad in (line[:-1] + digit, line[:-1], line[:-12] + "0" * 12):
                ann.say(bad + "\n")
            other.say(line + "\n")  # the cookie of another port
            with Client(port, source="127.0.0.2" if LINUX else None) as host:
                host.say(line + "\n").say("/join host")
                check(host.hear().startswith("* /join host "), "a word for a bad cookie")
            other.say("/join other\n")
            check(other.hear().startswith("* /join other "), "a word for a bad cookie")
            ann.say("/join ann\n")
            check_equal("* " + line, ann.hear(), "answer")
            ann.say(line)
            check_equal("* welcome, 1 here", ann.hear(), "answer")


@native
def joining_twice_is_joining_once():
    with server() as p:
        port = p.port()
        with Client(port) as ann, Client(port) as bob:
            line = ann.ask("ann")
            check_equal("* welcome, 1 here", ann.say(line).hear(), "first")
            check_equal("* welcome back", ann.say(line).hear(), "second")
            check_equal(["ann"], who(ann), "names")
            line = bob.ask("ann")
            check_equal("* somebody has this name", bob.say(line).hear(), "the same name")
            check_equal(["ann"], who(ann), "names")


@native
def what_is_no_line_of_text_is_dropped():
    with server() as p:
        port = p.port()
        with Client(port) as ann, Client(port) as bob:
            ann.join("ann")
            bob.join("bob")
            ann.hear()
            for text in (b"", b"\n", b"x" * 513, b"x" * 60000, b"\xff\xfe", b"abc\xe2\x82", b"\xc3",
                         b"\xc0\xaf", b"a\0b", b"\x1b[2J", b"a\nbob: lies", b"a\rb", b"\x7f",
                         b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\x80"):
                ann.say(text)
            ann.say(b"a\tb\r\n")
            check_equal("ann: a\tb", bob.hear(), "the only line")


@native
def names_are_short_and_plain():
    with server() as p, Client(p.port()) as c:
        for name in ("", " ", "a b", "n" * 17, "ann!", "\u00e4nn", "*", "a:"):
            c.say("/join %s\n" % name)
            answer = c.say("/join marker\n").hear()
            if answer == "* first say /join NAME":
                answer = c.hear()
            check(answer.startswith("* /join marker "), "%r: %r" % (name, answer))


@fact
def who_is_silent_is_forgotten():
    with server("--idle", "1", "127.0.0.1:0") as p:
        port = p.port()
        with Client(port) as ann, Client(port) as bob:
            bob.join("bob")
            start = time.monotonic()
            ann.join("ann")
            bob.hear()
            end = start + 0.7
            while time.monotonic() < end:
                bob.silent()
                time.sleep(0.1)  # bob talks on and ann does not
            bob.s.settimeout(10)
            check_equal("* ann fell silent", bob.hear(), "to bob")
            check(1 <= time.monotonic() - start < 5, "after %.1f s" % (time.monotonic() - start))
            check_equal(["bob"], who(bob), "names")
            check_equal("* first say /join NAME", ann.say("good morning").hear(), "to ann")


@native
def a_full_room_is_said():
    with server() as p:
        port = p.port()
        clients = []
        try:
            for i in range(256):
                clients.append(Client(port).join("name%d" % i))
            with Client(port) as late:
                line = late.ask("late")
                check_equal("* full", late.say(line).hear(), "answer")
            clients[0].say("/leave\n")
            with Client(port) as late:
                late.join("late")
        finally:
            for c in clients:
                c.s.close()


@native
def lines_reach_two_hundred():
    with server() as p:
        port = p.port()
        clients = [Client(port).join("name%d" % i) for i in range(200)]
        try:
            for i, c in enumerate(clients):
                for _ in range(199 - i):
                    c.hear()  # who joined later
            clients[77].say("hello all")
            for i, c in enumerate(clients):
                if i != 77:
                    check_equal("name77: hello all", c.hear(), "to name%d" % i)
            check_equal(200, len(who(clients[77])), "names")
        finally:
            for c in clients:
                c.s.close()


@native
def a_client_that_left_without_a_word_hurts_nobody():
    with server() as p:
        port = p.port()
        with Client(port) as ann, Client(port) as bob:
            ann.join("ann")
            bob.join("bob")
            ann.hear()
            Client(port).join("gone").s.close()  # its port answers with ICMP from now on
            for c in (ann, bob):
                check_equal("* gone joined", c.hear(), "news")
            for i in range(100):
                ann.say("line %d" % i)
                check_equal("ann: line %d" % i, bob.hear(), "to bob")


@native
def servers_cannot_be_made_to_talk_to_each_other():
    with server() as one, server() as two:
        with Client(one.port()) as c:
            lines = [c.say("/join ann\n").hear(), c.say("what is this").hear()]
        # What one server sends to strangers, sent to the other: it must not answer.
        with Client(two.port()) as c:
            for line in lines:
                c.say(line + "\n")
            c.say("/join marker\n")
            check(c.hear().startswith("* /join marker "), "it answers a server's line")


@fact
def both_families_meet():
    need_ipv6()
    with server(":0") as p:
        port = p.port()
        with Client(port) as four, Client(port, "::1") as six:
            four.join("four")
            six.join("six")
            check_equal("* six joined", four.hear(), "to four")
            six.say("hello")
            check_equal("six: hello", four.hear(), "to four")
            four.say("hello")
            check_equal("four: hello", six.hear(), "to six")


@native
def port_9000_is_the_default():
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("0.0.0.0", 9000))
    except OSError as e:
        raise Skip("port 9000: %s" % e)
    with Run([PROGRAM]) as p:
        check_equal(9000, p.port(), "port")
        code, _, err = run([PROGRAM])
        check_equal(1, code, "exit code of a second one")
        check("address in use" in err, err)


def check_three(command):
    with server() as p:
        command = [word.replace("PORT", str(p.port())) for word in command]
        with Run(command, emulate=False) as a, Run(command, emulate=False) as b, \
                Run(command, emulate=False) as c:
            for name, one in (("ann", a), ("bob", b), ("eve", c)):
                one.feed(b"/join %s\n" % name.encode())
                line = one.expect(rb"\* (/join %s [0-9a-f]{12})\n" % name.encode()).group(1)
                one.feed(line + b"\n")
                one.expect(b"welcome, ")
            c.feed(b"hello from eve\n")
            a.expect(b"\neve: hello from eve\n")
            b.expect(b"\neve: hello from eve\n")
            b.feed(b"and from bob\n")
            a.expect(b"\nbob: and from bob\n")
            c.expect(b"\nbob: and from bob\n")
            check(b"eve: " not in c.out and b"bob: " not in b.out, "a speaker heard itself")


@native
def three_netcats_talk():
    check_three([openbsd_nc(), "-u", "127.0.0.1", "PORT"])


@native
def three_ncats_talk():
    check_three([tool("ncat"), "-u", "127.0.0.1", "PORT"])


@native
def three_socats_talk():
    check_three([tool("socat"), "-", "UDP4:127.0.0.1:PORT"])


@fact
def the_hash_is_siphash():
    cc = shlex.split(os.environ.get("CC", "cc"))
    if EMULATOR or not shutil.which(cc[0]):
        raise Skip("no compiler for a program that runs here")
    with open(path("hash.c"), "w") as f:
        # The authors' test: key 00 01 .. 0f, text 00 01 .., of 0, 8 and 16 bytes.
        f.write('#define main chat_main\n#include "%s/examples/udp_chat.c"\n#undef main\n'
                'int main(void) {\n'
                'uint64_t words[] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};\n'
                'memcpy(key, words, sizeof key);\n'
                'for (int i = 0; i < 3; i++) printf("%%016llx\\n", (unsigned long long)'
                'siphash(words, i));\nreturn 0; }\n' % SOURCE)
    subprocess.check_call(cc + ["-pthread", path("hash.c"), "-o", path("hash")])
    out = subprocess.run([path("hash")], stdout=subprocess.PIPE).stdout.split()
    check_equal([b"726fdb47dd0e0e31", b"93f5f5799a932462", b"3f2acc7f57c29bdb"], out, "hashes")


@native
def signals_end_it_cleanly():
    if WINE:
        raise Skip("no signals under Wine")
    for number in (signal.SIGTERM, signal.SIGINT):
        with server() as p, Client(p.port()) as c:
            c.join("ann")
            check_equal(0, p.stop(number), "exit code")
            check_equal(b"", bytes(p.err), "stderr")


@native
def idle_costs_nothing():
    with server() as p, Client(p.port()) as c:
        c.join("ann")
        check_idle(p.pid)


@native
def usage_is_exit_code_2():
    for words in (["a", "b"], ["--idle", "0"], ["--idle", "x", "127.0.0.1:0"],
                  ["--idle", "1e9"], ["--help"]):
        code, _, err = run([PROGRAM] + words)
        check_equal(2, code, "exit code of %r" % words)
        check("usage" in err, err)


main("udp_chat")
