#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""What others make of netio's TLS: scanners on examples/tls_echo_server.c, and stunnel and nginx
in front of it and behind examples/nc.c."""
import json
import re
import socket
import time

from common import (Run, certs, check, check_equal, fact, folder, free_port, main, need_tls, path,
                    program, tool)

SUITES = ["TLS_AKE_WITH_AES_128_GCM_SHA256", "TLS_AKE_WITH_AES_256_GCM_SHA384",
          "TLS_AKE_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_%s_WITH_AES_128_GCM_SHA256",
          "TLS_ECDHE_%s_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_%s_WITH_CHACHA20_POLY1305_SHA256"]


def server(cert="good.pem", key="key.pem"):
    return Run([program("tls_echo_server"), certs(cert), certs(key), "127.0.0.1:0"])


def tell(*command, timeout=600):
    with Run([str(w) for w in command], emulate=False) as p:
        p.end_input()
        check_equal(0, p.wait(timeout), "exit code of %s: %r" % (command[0], bytes(p.err)))
        return p.out.decode(errors="replace")


def when_listening(port, p):
    """Wait until a program takes connections; the one that finds out is closed at once."""
    end = time.monotonic() + 15
    while True:
        check(p.process.poll() is None, "%s ended: %r" % (p.command, bytes(p.err)))
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            check(time.monotonic() < end, "%s does not listen" % p.command)
            time.sleep(0.02)  # nothing tells


@fact
def nmap_finds_six_suites_of_grade_a():
    need_tls()
    nmap = tool("nmap")
    for cert, key, kind in (("good.pem", "key.pem", "ECDSA"), ("rsa.pem", "rsa.key", "RSA")):
        with server(cert, key) as p:
            out = tell(nmap, "-Pn", "-n", "--script", "ssl-enum-ciphers", "-p", p.port(),
                       "127.0.0.1")
        check_equal(sorted(s.replace("%s", kind) for s in SUITES),
                    sorted(re.findall(r"(TLS_\w+) \(", out)), "suites")
        check_equal(["TLSv1.2", "TLSv1.3"], re.findall(r"\|   (\S+): ?\n", out), "versions")
        check_equal(["NULL"], re.findall(r"compressors: \n\|\s+(\w+)", out), "compression")
        check("least strength: A" in out, out)
        check("client" not in "".join(re.findall("cipher preference: (.*)", out)), out)


@fact
def testssl_finds_nothing_but_our_certificate():
    need_tls()
    found = path("testssl.json")
    with server() as p:
        # Its exit code counts findings; they are in the file.
        with Run([tool("testssl"), "--quiet", "--color", "0", "--warnings", "off", "--nodns",
                  "none", "--ip", "127.0.0.1", "--add-ca", certs("ca.pem"), "-p", "-s", "-f", "-S",
                  "-U", "--severity", "LOW", "--jsonfile", found,
                  "https://example.test:%d/" % p.port()], emulate=False) as scan:
            scan.end_input()
            scan.wait(600)
            report = scan.out.decode(errors="replace")
    with open(found) as f:
        findings = {row["id"]: row["finding"] for row in json.load(f)}
    # A private CA has no CRL, these certificates live long, and an echo is no web server.
    # Its own client does not always find its way back with a ticket; others do (peers/test_tls.py).
    known = {"cert_revocation", "cert_validityPeriod", "service", "engine_problem",
             "sessionresumption_ticket"}
    check_equal({}, {k: v for k, v in findings.items() if k not in known}, "findings")
    for line in (r"TLS 1\.3 +offered \(OK\)", r"Obsolete CBC.* not offered", r"FS is offered \(OK\)",
                 r"Chain of trust +Ok", r"ROBOT +(Server does not support|not vuln)",
                 r"CRIME.* not vulnerable", r"LUCKY13.* not vulnerable"):
        check(re.search(line, report), "no %r in the report:\n%s" % (line, report))


@fact
def stunnel_takes_tls_off_in_front_of_us_and_puts_it_on():
    need_tls()
    place = free_port()
    config = path("stunnel.conf")
    with server() as p:
        with open(config, "w") as f:
            f.write("foreground = yes\npid =\ndebug = 4\n[out]\nclient = yes\n"
                    "accept = 127.0.0.1:%d\nconnect = 127.0.0.1:%d\nCAfile = %s\n"
                    "verifyChain = yes\ncheckHost = example.test\n" %
                    (place, p.port(), certs("ca.pem")))
        with Run([tool("stunnel"), config], emulate=False) as s:
            when_listening(place, s)
            with socket.create_connection(("127.0.0.1", place)) as c:
                c.sendall(b"through stunnel")
                check_equal(b"through stunnel", c.recv(100), "echo")


@fact
def nc_speaks_to_stunnel():
    need_tls()
    nc = program("nc")
    place, behind = free_port(), free_port()
    config = path("stunnel2.conf")
    with open(config, "w") as f:
        f.write("foreground = yes\npid =\ndebug = 4\n[in]\naccept = 127.0.0.1:%d\n"
                "connect = 127.0.0.1:%d\ncert = %s\nkey = %s\n" %
                (place, behind, certs("good.pem"), certs("key.pem")))
    with socket.socket() as plain, Run([tool("stunnel"), config], emulate=False) as s:
        plain.bind(("127.0.0.1", behind))
        plain.listen(5)
        when_listening(place, s)
        with Run([nc, "-cN", "-R", certs("ca.pem"), "-e", "example.test", "127.0.0.1",
                  str(place)]) as p:
            p.feed(b"to stunnel")
            while True:  # when_listening made a connection of its own
                c = plain.accept()[0]
                got = c.recv(100)
                if got:
                    break
            check_equal(b"to stunnel", got, "behind stunnel")
            c.sendall(b"and back")
            c.close()
            p.expect(b"and back$")
            p.end_input()
            check_equal(0, p.wait(), "exit code, %r" % bytes(p.err))


@fact
def nc_gets_a_page_from_nginx():
    need_tls()
    nginx = tool("nginx")
    place, config = free_port(), path("nginx.conf")
    with open(path("page.html"), "w") as f:
        f.write("a page\n" * 10000)
    with open(config, "w") as f:
        f.write("daemon off; master_process off; pid %s; error_log stderr;\n"
                "events {}\nhttp { access_log off; client_body_temp_path %s; proxy_temp_path %s;"
                " fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s;\n"
                "server { listen 127.0.0.1:%d ssl; ssl_certificate %s; ssl_certificate_key %s;"
                " root %s; } }\n" % ((path("nginx.pid"),) + (path("tmp"),) * 5 +
                                     (place, certs("good.pem"), certs("key.pem"), folder)))
    with Run([nginx, "-p", folder, "-c", config], emulate=False) as s:
        when_listening(place, s)
        for version in ("1.0", "1.1"):
            with Run([program("nc"), "-c", "-R", certs("ca.pem"), "-e", "example.test",
                      "127.0.0.1", str(place)]) as p:
                p.feed_and_end(("GET /page.html HTTP/%s\r\nHost: example.test\r\n"
                                "Connection: close\r\n\r\n" % version).encode())
                check_equal(0, p.wait(), "exit code, %r" % bytes(p.err))
                check_equal(b"a page\n" * 10000, bytes(p.out).split(b"\r\n\r\n", 1)[1], "page")


main("tls_scanners")
