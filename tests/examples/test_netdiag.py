#!/usr/bin/env python3
"""Drives examples/apps/netdiag.c against every kind of target, in a network of its own where that
can be made. Witnesses: `ip -j addr`, `openssl s_server`, and what Python's own sockets meet."""
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

from common import (EMULATOR, LINUX, Run, SOURCE, Skip, WINE, check, check_equal, fact, folder,
                    main, native, need_ipv6, path, program, run, tool)

INSIDE = os.environ.get("NETIO_INSIDE") == "1"  # in the network of our own
CODES = {"reachable": 0, "refused": 1, "filtered": 3, "unreachable": 4, "wrong family": 5,
         "no such name": 6, "no lookup": 7, "TLS on a plain port": 8, "plain on a TLS port": 9,
         "hangs up": 10, "unknown": 11}


def enter_namespace():
    """Start this driver again with a loopback interface, a link, and files of /etc of its own."""
    if INSIDE or EMULATOR or not LINUX or not shutil.which("unshare") or not shutil.which("ip"):
        return
    command = ["unshare", "-n", "-m"] if os.geteuid() == 0 else ["unshare", "-Urnm"]
    script = ("ip link set lo up && ip link add d0 type veth peer name d1 && "
              "ip addr add 10.201.0.1/24 brd + dev d0 && ip link set d0 up && ip link set d1 up && "
              "ip neigh replace 10.201.0.9 lladdr 02:00:00:00:00:09 dev d0 && exec \"$@\"")
    prefix = command + ["sh", "-c", script, "sh"]
    if subprocess.run(prefix + ["true"], capture_output=True).returncode == 0:
        os.environ["NETIO_INSIDE"] = "1"
        os.rmdir(folder)  # the program that replaces this one makes its own
        os.execvp(prefix[0], prefix + [sys.executable, "-B"] + sys.argv)


def app(name):
    """An application: programs of others lie in examples/, these in examples/apps/."""
    if os.environ.get("NETIO_BUILD"):
        return program(name)
    os.mkdir(path("apps"))
    return program("apps/" + name)


enter_namespace()
PROGRAM = app("netdiag")


def need_inside():
    if not INSIDE:
        raise Skip("needs a network namespace of its own")


def replace_file(name, text):
    """Another content for a file of /etc, in our mount namespace alone."""
    need_inside()
    copy = path(name.replace("/", "_"))
    with open(copy, "w") as f:
        f.write(text)
    os.chmod(folder, 0o755)
    os.chmod(copy, 0o644)
    if subprocess.run(["mount", "--bind", copy, name], capture_output=True).returncode:
        raise Skip("cannot replace %s" % name)


def need_names():
    """four, six and both are names of this machine; there is no name server."""
    if not os.path.exists(path("_etc_hosts")):
        replace_file("/etc/hosts", "127.0.0.1 localhost four both\n::1 six both\n")
        replace_file("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        if os.path.exists("/etc/nsswitch.conf"):
            replace_file("/etc/nsswitch.conf", "hosts: files dns\nservices: files\n")


def diagnose(verdict, *words, **more):
    code, out, err = run([PROGRAM] + list(words), **more)
    text = out.decode().replace("\r\n", "\n")
    last = text.rstrip("\n").split("\n")[-1]
    check(last.startswith("verdict: %s - " % verdict), "wanted %s: %r %r" % (verdict, text, err))
    check_equal(CODES[verdict], code, "exit code of %r" % last)
    return text


class Server:
    """Runs `serve(connection)` for every client, in threads."""

    def __init__(self, serve, host="127.0.0.1"):
        self.serve = serve
        self.s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if ":" in host:
            self.s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.s.bind((host, 0))
        self.s.listen()
        self.port = self.s.getsockname()[1]
        self.at = ("[%s]:%d" if ":" in host else "%s:%d") % (host, self.port)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(c,), daemon=True).start()

    def talk(self, c):
        with c:
            try:
                self.serve(c)
            except OSError:
                pass  # the client has seen enough

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.shutdown(socket.SHUT_RDWR) if LINUX else None
        self.s.close()


def silent(c):
    while c.recv(4096):
        pass


def banner(c):
    c.sendall(b"220 \x1b[31mmail.example ready\r\n")
    silent(c)


def http(c):
    got = b""
    while b"\r\n\r\n" not in got:
        data = c.recv(4096)
        if not data:
            return
        got += data
    c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    silent(c)


def certificate():
    pem = path("server.pem")
    if not os.path.exists(pem):
        subprocess.run([tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj",
                        "/CN=localhost", "-keyout", pem, "-out", path("cert.pem")],
                       check=True, capture_output=True)
        with open(pem, "a") as out, open(path("cert.pem")) as f:
            out.write(f.read())
    return pem


def tls(lowest=None, highest=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate())
    if lowest:
        context.minimum_version = lowest
    if highest:
        context.maximum_version = highest

    def serve(c):
        try:
            with context.wrap_socket(c, server_side=True) as t:
                silent(t)
        except ssl.SSLError:
            pass
    return serve


def closed_port(host="127.0.0.1"):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.bind((host, 0))
        return s.getsockname()[1]


@fact
def a_listener_is_reachable():
    with Server(silent) as s:
        text = diagnose("reachable", s.at)
        check("address   %s: connected, " % s.at in text, text)
        check("race      won by %s, " % s.at in text, text)
        check("speaks    nothing by itself" in text, text)
        tcp = re.search(r"tcp       (\S+), round trip ([\d.]+) ms", text)
        if LINUX and not EMULATOR:
            check(tcp and tcp.group(1) == "ESTABLISHED", text)
            check(0 < float(tcp.group(2)) < 100, text)
            check(re.search(r"mtu       \d{4,5} bytes", text), text)
        else:
            check(tcp or "tcp       unknown: " in text, text)


@fact
def a_closed_port_is_refused():
    start = time.monotonic()
    text = diagnose("refused", "127.0.0.1:%d" % closed_port())
    check("connection refused" in text, text)
    if not WINE:
        check(time.monotonic() - start < 5, "took %.1f s" % (time.monotonic() - start))
    need_ipv6()
    diagnose("refused", "[::1]:%d" % closed_port("::1"))


@native
def silence_is_filtered():
    need_inside()
    start = time.monotonic()
    text = diagnose("filtered", "10.201.0.9:80", "--timeout", "300")
    check("timed out" in text, text)
    check(re.search("ping      (no answer|unknown)", text), text)
    check(0.3 <= time.monotonic() - start < 8, "took %.1f s" % (time.monotonic() - start))


@native
def no_way_there_is_unreachable():
    need_inside()
    diagnose("unreachable", "198.51.100.1:80")
    diagnose("unreachable", "[2001:db8::1]:80")


@native
def nobody_on_the_own_network_is_unreachable():
    need_inside()
    text = diagnose("unreachable", "10.201.0.7:80")
    check("host unreachable" in text, text)


@native
def what_is_not_permitted_is_unknown():
    need_inside()
    subprocess.check_call(["ip", "route", "add", "prohibit", "198.18.0.0/15"])
    text = diagnose("unknown", "198.18.0.1:80")
    check("permission denied" in text, text)


@native
def without_descriptors_it_is_unknown():
    if not LINUX or EMULATOR:
        raise Skip("limits of descriptors are set by POSIX calls")
    import resource
    with Server(silent) as s:
        for limit in (4, 5, 6, 7):
            code, out, err = run([PROGRAM, s.at], preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_NOFILE, (limit, limit)))
            check(code in (0, 11), "with %d: %d %r %r" % (limit, code, out, err))
            check(limit > 5 or code == 11, "with %d: %d %r %r" % (limit, code, out, err))


@native
def ping_without_rights_is_unknown():
    need_inside()
    if os.geteuid() != 0:
        raise Skip("only root can become somebody else")
    try:
        user = pwd.getpwnam("nobody")
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as f:
            f.write("1 0")
    except (KeyError, OSError) as e:
        raise Skip("no user without rights: %s" % e)

    def become():
        os.setgroups([])
        os.setresgid(*[user.pw_gid] * 3)
        os.setresuid(*[user.pw_uid] * 3)
    os.chmod(folder, 0o755)
    copy = path("for-all")
    shutil.copy(PROGRAM, copy)
    os.chmod(copy, 0o755)
    code, out, err = run([copy, "10.201.0.9:80", "--timeout", "200"], preexec_fn=become)
    check(b"ping      unknown: no permission" in out, "%r %r" % (out, err))
    check_equal(CODES["filtered"], code, "exit code")


@native
def ping_tells_that_the_host_is_up():
    need_inside()
    tool("nft")
    rule = "table inet t { chain c { type filter hook input priority 0; tcp dport 7777 drop; }; }"
    if subprocess.run(["nft", rule], capture_output=True).returncode:
        raise Skip("nft does not work here")
    try:
        text = diagnose("filtered", "10.201.0.1:7777", "--timeout", "200")
        check("the host answers: it is up" in text or "unknown" in text, text)
        if os.geteuid() == 0:
            check("the host answers: it is up" in text, text)
    finally:
        subprocess.check_call(["nft", "delete table inet t"])


@native
def the_wrong_family_is_told():
    need_ipv6()
    with Server(silent) as s:
        text = diagnose("wrong family", "[::1]:%d" % s.port)
        check("127.0.0.1:%d: connected" % s.port in text and "(to compare)" in text, text)
        check("note" not in text, text)
        diagnose("reachable", "127.0.0.1:%d" % s.port)
        diagnose("wrong family", "-6", "127.0.0.1:%d" % s.port)
    with Server(silent, "::1") as s:
        diagnose("wrong family", "127.0.0.1:%d" % s.port)
    port = closed_port()
    diagnose("refused", "127.0.0.1:%d" % port)


@fact
def names_are_tried_in_both_families():
    need_ipv6()
    need_names()
    with Server(silent) as s:
        text = diagnose("reachable", "both:%d" % s.port)
        check("2 addresses" in text and "note      over IPv6 it is refused" in text, text)
        check("127.0.0.1:%d: connected" % s.port in text, text)
        check("named localhost" in text, text)
        diagnose("wrong family", "-6", "both:%d" % s.port)
        text = diagnose("reachable", "-4", "both:%d" % s.port)
        check("note" not in text, text)
        diagnose("wrong family", "-6", "four:%d" % s.port)
        diagnose("reachable", "four:%d" % s.port)
        diagnose("wrong family", "six:%d" % s.port)
    diagnose("unreachable", "-6", "four:%d" % closed_port())


@fact
def unknown_names_are_told():
    if WINE:
        raise Skip("depends on the machine's name servers")
    need_names()
    start = time.monotonic()
    text = diagnose("no lookup", "example.com:80")
    check("name" in text and time.monotonic() - start < 20, text)
    replace_file("/etc/nsswitch.conf", "hosts: files\nservices: files\n")
    if subprocess.run(["getent", "hosts", "example.com"]).returncode != 2:
        raise Skip("the C library does not take nsswitch.conf")
    diagnose("no such name", "example.com:80")


@native
def a_slow_name_server_is_no_lookup():
    need_names()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        try:
            dns.bind(("127.0.0.1", 53))  # takes questions and does not answer
        except OSError as e:
            raise Skip("port 53: %s" % e)
        replace_file("/etc/nsswitch.conf", "hosts: files dns\nservices: files\n")
        start = time.monotonic()
        diagnose("no lookup", "example.org:80", "--timeout", "300")
        check(time.monotonic() - start < 5, "took %.1f s" % (time.monotonic() - start))


@native
def tls_on_a_plain_port_is_told():
    with Server(tls()) as s:
        check("speaks    TLS" in diagnose("TLS on a plain port", "--plain", s.at), "speaks")
        check("speaks    TLS" in diagnose("reachable", "--tls", s.at), "speaks")
        check("speaks    nothing by itself" in diagnose("reachable", s.at), "speaks")


@native
def every_version_of_tls_is_recognized():
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with Server(tls(version, version)) as s:
            diagnose("reachable", "--tls", s.at)
            diagnose("TLS on a plain port", "--plain", s.at)


@native
def openssl_s_server_is_recognized():
    port = closed_port()
    command = [tool("openssl"), "s_server", "-cert", certificate(), "-accept",
               "127.0.0.1:%d" % port]
    with Run(command, emulate=False) as p:
        p.expect(b"ACCEPT")
        diagnose("reachable", "--tls", "127.0.0.1:%d" % port)
        diagnose("TLS on a plain port", "--plain", "127.0.0.1:%d" % port)


@native
def plain_on_a_tls_port_is_told():
    with Server(http) as s:
        text = diagnose("plain on a TLS port", "--tls", s.at)
        check('speaks    plain: "HTTP/1.1 400 Bad Request"' in text, text)
        diagnose("reachable", "--plain", s.at)
    with Server(banner) as s:
        text = diagnose("plain on a TLS port", "--tls", s.at)
        check('speaks    plain: "220 .[31mmail.example ready"' in text, text)
        text = diagnose("reachable", s.at)
        check('speaks    plain: "220 .[31mmail.example ready"' in text and "\x1b" not in text, text)


@native
def silence_to_a_tls_greeting_proves_nothing():
    with Server(silent) as s:
        text = diagnose("unknown", "--tls", s.at)
        check("speaks    nothing, not even to a TLS greeting" in text, text)
        diagnose("reachable", "--plain", s.at)


@native
def who_hangs_up_is_told():
    with Server(lambda c: None) as s:
        diagnose("hangs up", s.at)
        diagnose("hangs up", "--tls", s.at)

    def on_data(c):
        c.recv(1)  # and closes with the rest unread, which resets the connection
    with Server(on_data) as s:
        diagnose("unknown", "--tls", s.at)
        diagnose("reachable", "--plain", s.at)


@native
def unix_sockets_are_diagnosed_too():
    if WINE or not hasattr(socket, "AF_UNIX"):
        raise Skip("no Unix sockets")
    name = path("u.sock")
    diagnose("refused", "unix:" + name)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(name)
        diagnose("refused", "unix:" + name)  # a file on which nobody listens
        s.listen()
        text = diagnose("reachable", "unix:" + name)
        check("tcp       unknown" in text, text)


@fact
def interfaces_are_those_that_ip_shows():
    if WINE or not LINUX:
        raise Skip("ip is for Linux")
    code, out, _ = run([tool("ip"), "-j", "addr"], emulate=False)
    if code:
        raise Skip("this ip has no -j")
    want = set()
    for link in json.loads(out):
        for a in link.get("addr_info", []):
            local = a["local"]
            if local.startswith("fe80:"):
                local += "%" + link["ifname"]
            broadcast = " broadcast " + a["broadcast"] if "broadcast" in a else ""
            flags = " up" if "UP" in link["flags"] else " down"
            flags += " loopback" if "LOOPBACK" in link["flags"] else ""
            flags += " multicast" if "MULTICAST" in link["flags"] else ""
            want.add("%d %s %s/%d%s%s" % (link["ifindex"], link["ifname"], local, a["prefixlen"],
                                          broadcast, flags))
    code, out, err = run([PROGRAM, "interfaces"])
    check_equal(0, code, "exit code (%s)" % err)
    check_equal(want, set(out.decode().splitlines()), "interfaces")


@native
def without_interfaces_the_list_is_empty():
    if EMULATOR or not LINUX or not INSIDE:
        raise Skip("needs network namespaces")
    code, out, err = run(["unshare", "-n", PROGRAM, "interfaces"], emulate=False)
    check_equal((0, b""), (code, out), "result (%s)" % err)


@fact
def supports_lists_every_option():
    code, out, err = run([PROGRAM, "supports"])
    check_equal(0, code, "exit code (%s)" % err)
    got = dict(line.rsplit(" ", 1) if line.endswith((" yes", " no")) else line.split(" unknown: ")
               for line in out.decode().replace("\r\n", "\n").splitlines())
    with open(os.path.join(SOURCE, "netio.h")) as f:
        names = re.findall(r"^    NETIO_OPT_(\w+)[, ]", f.read(), re.M)
    check(len(names) > 40, "options in the header: %r" % names)
    listed = [k.split()[1] for k in got if k.startswith("option ")]
    check_equal(sorted(names), sorted(listed), "options")
    check_equal("yes", got["option NODELAY"], "NODELAY")
    check_equal("yes", got["socket IPv4"], "IPv4")
    check_equal("no", got["backend iouring"], "a backend of the future")
    if LINUX and not EMULATOR:
        for name in ("select", "poll", "epoll"):
            check_equal("yes", got["backend " + name], name)
        for name in ("kqueue", "wsapoll"):
            check_equal("no", got["backend " + name], name)
        check_equal("no", got["option EXCLUSIVE"], "EXCLUSIVE")
        for name, family, kind, protocol in (
                ("icmp-datagram", socket.AF_INET, socket.SOCK_DGRAM, 1),
                ("icmp-raw", socket.AF_INET, socket.SOCK_RAW, 1),
                ("sctp", socket.AF_INET, socket.SOCK_STREAM, 132)):
            try:
                socket.socket(family, kind, protocol).close()
                want = "yes"
            except PermissionError:
                want = "no permission"
            except OSError:
                want = "no"
            check_equal(want, got["socket " + name], name)


@native
def usage_is_exit_code_2():
    for words in ([], ["--nope", "127.0.0.1:1"], ["--tls", "--plain", "127.0.0.1:1"], ["-4"],
                  ["--timeout", "0", "127.0.0.1:1"], ["--timeout", "127.0.0.1:1"], ["a:1", "b:1"]):
        code, _, err = run([PROGRAM] + words)
        check_equal(2, code, "exit code of %r" % words)
        check("usage" in err, "%r: %r" % (words, err))
    for target in ("127.0.0.1", "127.0.0.1:99999", "1.2.3:80", ":nosuchservice"):
        code, _, err = run([PROGRAM, target])
        check_equal((2, True), (code, target in err), "%r: %r" % (target, err))


main("netdiag")
