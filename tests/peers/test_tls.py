#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""TLS against openssl s_client and s_server, curl, gnutls-cli and gnutls-serv, and Python's ssl."""
import atexit
import os
import re
import select
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

import peers

SOURCE = os.environ.get("NETIO_SOURCE", os.path.join(peers.HERE, "..", ".."))
VERSIONS = ("1.2", "1.3")
made = {}


def driver():
    """The compiled tls_driver; None where OpenSSL's headers are missing."""
    if "driver" not in made:
        folder = tempfile.mkdtemp(prefix="netio-tls-")
        atexit.register(shutil.rmtree, folder, True)
        out = os.path.join(folder, "tls_driver")
        done = subprocess.run([os.environ.get("CC", "cc"), "-std=c99", "-I" + SOURCE,
                               os.path.join(peers.HERE, "tls_driver.c"), "-o", out, "-lssl",
                               "-lcrypto", "-pthread"], stderr=subprocess.PIPE,
                              universal_newlines=True)
        made["driver"] = out if done.returncode == 0 else None
        made["why"] = done.stderr.strip().splitlines()[:1]
    return made["driver"]


def certs():
    if "certs" not in made:
        folder = os.environ.get("NETIO_TEST_CERTS")
        if not folder:
            folder = tempfile.mkdtemp(prefix="netio-certs-")
            atexit.register(shutil.rmtree, folder, True)
        script = os.path.join(peers.HERE, "..", "tls", "certs.sh")
        done = subprocess.run(["sh", script, folder], stdout=subprocess.DEVNULL)
        made["certs"] = folder if done.returncode == 0 else None
    return made["certs"]


def cert(name):
    return os.path.join(certs(), name)


class Tls(peers.Case):
    def setUp(self):
        if shutil.which("openssl") is None or certs() is None:
            self.skipTest("no openssl command")
        if driver() is None:
            self.skipTest("tls_driver does not compile: %s" % made["why"])
        self.seen = {} # output of programs that was read beyond a line

    def lines_of(self, p, limit_s=15):
        """The next line of a program's output."""
        while b"\n" not in self.seen.get(p.pid, b""):
            if not select.select([p.stdout], [], [], limit_s)[0]:
                raise AssertionError("no line within %d s" % limit_s)
            got = os.read(p.stdout.fileno(), 65536)
            if not got:
                raise AssertionError("no line: it ended")
            self.seen[p.pid] = self.seen.get(p.pid, b"") + got
        line, self.seen[p.pid] = self.seen[p.pid].split(b"\n", 1)
        return line.decode(errors="replace").strip()

    def serve(self, *options, pem="good.pem"):
        p = self.program(driver(), "server", "--cert", cert(pem), *options, stdout=subprocess.PIPE)
        line = self.lines_of(p)
        self.assertTrue(line.startswith("PORT "), line)
        return p, int(line.split()[1])

    def dial(self, port, *options, ca="ca.crt"):
        done = subprocess.run([driver(), "client", "127.0.0.1:%d" % port, "--ca", cert(ca)] +
                              [str(x) for x in options], stdout=subprocess.PIPE, timeout=60)
        return done.stdout.decode().strip()

    def run_tool(self, words, feed=b"", timeout=30):
        if shutil.which(words[0]) is None:
            self.skipTest("no " + words[0])
        done = subprocess.run([str(w) for w in words], input=feed, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout)
        return done.returncode, done.stdout.decode(errors="replace")

    def listening(self, *words):
        """A tool that serves on a free port; PORT in its words is that port."""
        for _ in range(5):
            port = peers.free_port("tcp")
            p = self.program(*[str(w).replace("PORT", str(port)) for w in words],
                             stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
            peers.wait_until(lambda: p.poll() is not None or peers.port_in_use(port, "tcp"), 10,
                             words[0])
            if p.poll() is None:
                return p, port
        self.fail("%s does not listen" % words[0])


class Proxies(Tls):
    """TLS from end to end through proxies that others wrote; the name is looked up behind them."""
    def check_through(self, proxy):
        p, port = self.serve("--count", "2")
        words = ("--proxy", proxy, "--name", "example.test")
        self.assertRegex(self.dial(port, *words), r"OK TLSv1\.3 .* peer=.*example\.test")
        self.assertTrue(self.lines_of(p).startswith("OK TLSv1.3"))
        self.assertIn("not for other.test", self.dial(port, "--proxy", proxy, "--name",
                                                      "other.test"))
        self.assertIn("refused", self.dial(peers.free_port("tcp"), *words).lower())

    def test_microsocks(self):
        p, port = self.listening("microsocks", "-i", "127.0.0.1", "-p", "PORT")
        self.check_through("socks5://127.0.0.1:%d" % port)

    def test_tinyproxy(self):
        config = os.path.join(self.folder(), "tinyproxy.conf")
        port = peers.free_port("tcp")
        with open(config, "w") as f:
            f.write("Port %d\nListen 127.0.0.1\nTimeout 20\nMaxClients 20\n"
                    "LogLevel Critical\n" % port)
        self.program("tinyproxy", "-d", "-c", config, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)
        peers.wait_until(lambda: peers.port_in_use(port, "tcp"), 10, "tinyproxy")
        self.check_through("http://127.0.0.1:%d" % port)


class OpensslClient(Tls):
    def client(self, port, *options, feed=b"hello\n"):
        """s_client sends `feed` and stays until its echo has come."""
        p = self.program("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-CAfile",
                         cert("ca.crt"), "-servername", "example.test", "-verify_hostname",
                         "example.test", "-verify_return_error", "-no_ign_eof", "-nocommands",
                         *options, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT)
        out, end = b"", time.monotonic() + 15
        if feed:
            p.stdin.write(feed)
            p.stdin.flush()
        while time.monotonic() < end and select.select([p.stdout], [], [], 5)[0]:
            got = os.read(p.stdout.fileno(), 65536)
            out += got
            if not got or (feed and b"\nhello\n" in out):
                break
        p.stdin.close()
        p.wait(10)
        return (out + p.stdout.read()).decode(errors="replace")

    def test_both_versions_are_served(self):
        for v in VERSIONS:
            with self.subTest(v):
                p, port = self.serve("--max", v)
                out = self.client(port)
                self.assertIn("hello", out)
                self.assertIn("Verify return code: 0 (ok)", out)
                self.assertIn("TLSv" + v, out)
                self.assertTrue(self.lines_of(p).startswith("OK TLSv" + v))
                self.assertEqual("END EOF", self.lines_of(p)) # its close_notify

    def test_chains_and_rsa_are_served(self):
        for pem in ("chain.pem", "rsa.pem"):
            with self.subTest(pem):
                _, port = self.serve(pem=pem)
                self.assertIn("hello", self.client(port))

    def test_old_versions_and_bad_ciphers_are_refused(self):
        for words, why in ((["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], "protocol version"),
                           (["-tls1_2", "-cipher",
                             "aNULL:eNULL:RC4:3DES:kRSA:@SECLEVEL=0"], "handshake failure")):
            with self.subTest(words[0]):
                p, port = self.serve()
                self.assertIn("alert " + why, self.client(port, *words, feed=b""))
                self.assertTrue(self.lines_of(p).startswith("FAIL "))

    def test_renegotiation_is_refused(self):
        _, port = self.serve("--max", "1.2")
        p = self.program("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-tls1_2",
                         "-CAfile", cert("ca.crt"), stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        p.stdin.write(b"R\n")
        p.stdin.flush()
        try:
            out, _ = p.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            p.kill()
            out, _ = p.communicate()
        self.assertIn("no renegotiation", out.decode(errors="replace"))

    def test_alpn_is_chosen_or_refused(self):
        p, port = self.serve("--alpn", "h2", "--count", "2")
        self.assertIn("ALPN protocol: h2", self.client(port, "-alpn", "http/1.1,h2"))
        self.assertIn("alpn=h2", self.lines_of(p))
        self.lines_of(p)
        self.assertIn("no application protocol", self.client(port, "-alpn", "smtp", feed=b""))
        self.assertIn("FAIL no protocol of the client's ALPN", self.lines_of(p))

    def test_client_certificates_are_asked_for(self):
        p, port = self.serve("--ca", cert("ca.crt"), "--clients", "require", "--count", "3")
        pem = cert("client2.pem")
        self.assertIn("hello", self.client(port, "-cert", pem, "-key", pem))
        self.assertIn("peer=O=netio,CN=Client", self.lines_of(p))
        self.lines_of(p)
        for other in (None, cert("client_other.pem")):
            words = ["-cert", other, "-key", other] if other else []
            self.client(port, *words, feed=b"")
            self.assertTrue(self.lines_of(p).startswith("FAIL "))

    def test_sessions_are_resumed(self):
        for v in VERSIONS:
            with self.subTest(v):
                p, port = self.serve("--count", "2", "--max", v)
                kept = os.path.join(self.folder(), "session")
                self.client(port, "-sess_out", kept)
                self.assertIn("resumed=0", self.lines_of(p))
                self.lines_of(p)
                self.assertIn("Reused, TLSv" + v, self.client(port, "-sess_in", kept))
                self.assertIn("resumed=1", self.lines_of(p))

    def test_key_updates_are_followed(self):
        p, port = self.serve()
        c = self.program("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-tls1_3",
                         "-CAfile", cert("ca.crt"), stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertTrue(self.lines_of(p).startswith("OK "))
        for command, want in ((b"k\n", b"KEYUPDATE"), (b"K\n", b"KEYUPDATE"),
                              (b"hello\n", b"hello")):
            c.stdin.write(command)
            c.stdin.flush()
            got, end = b"", time.monotonic() + 10
            while want not in got and time.monotonic() < end:
                if select.select([c.stdout], [], [], 1)[0]:
                    got += os.read(c.stdout.fileno(), 65536)
            self.assertIn(want, got)

    def test_staples_are_handed_out(self):
        _, port = self.serve("--stapled", cert("staple_good.der"))
        self.assertIn("OCSP Response Status: successful", self.client(port, "-status"))

    def test_pre_shared_keys(self):
        key = "0123456789abcdef0123456789abcdef"
        for v in VERSIONS:
            with self.subTest(v):
                p, port = self.serve("--psk", "sensor:" + key, "--max", v)
                out = self.client(port, "-psk_identity", "sensor", "-psk",
                                  key.encode().hex(), *(["-cipher", "PSK"] if v == "1.2" else []))
                self.assertIn("hello", out)
                self.assertIn("peer=sensor", self.lines_of(p))


class OpensslServer(Tls):
    def server(self, *options, pem="good.pem"):
        _, port = self.listening("openssl", "s_server", "-accept", "127.0.0.1:PORT", "-cert",
                                 cert(pem), "-key", cert(pem), "-CAfile", cert("ca.crt"), "-rev",
                                 "-quiet", *options)
        return port

    def test_both_versions_are_dialed(self):
        for v in VERSIONS:
            with self.subTest(v):
                port = self.server("-tls1_" + v[2])
                self.assertTrue(self.dial(port).startswith("OK TLSv" + v))

    def test_each_bad_certificate_is_named(self):
        for pem, words in (("other_name.pem", "not for localhost"), ("expired.pem", "expired on"),
                           ("self.pem", "is self-signed"), ("untrusted.pem", "is unknown"),
                           ("client_eku.pem", "not for TLS servers")):
            with self.subTest(pem):
                self.assertIn(words, self.dial(self.server(pem=pem)))

    def test_a_client_certificate_is_shown_when_asked(self):
        port = self.server("-Verify", "2", "-verify_return_error")
        self.assertNotIn("refused", self.dial(port, "--cert", cert("client.pem")))
        self.assertIn("refused", self.dial(port))

    def test_old_versions_are_refused(self):
        port = self.server("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        self.assertIn("it wants another version of TLS", self.dial(port))

    def test_plain_text_is_named(self):
        server, _ = self.listener()
        port = server.getsockname()[1]

        def answer():
            c, _ = server.accept()
            c.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            c.recv(1000)
            c.close()

        t = threading.Thread(target=answer)
        t.start()
        self.assertIn('does not speak TLS, its first bytes are "HTTP/1.0 400 Bad"',
                      self.dial(port))
        t.join()


class PythonSsl(Tls):
    def test_as_client(self):
        for v, number in zip(VERSIONS, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)):
            with self.subTest(v):
                p, port = self.serve("--alpn", "h2")
                ctx = ssl.create_default_context(cafile=cert("ca.crt"))
                ctx.minimum_version = ctx.maximum_version = number
                ctx.set_alpn_protocols(["h2"])
                raw = socket.create_connection(("127.0.0.1", port), 10)
                with ctx.wrap_socket(raw, server_hostname="localhost") as s:
                    self.assertEqual("h2", s.selected_alpn_protocol())
                    for size in (1, 16384, 200000):
                        data = peers.payload(size)
                        s.sendall(data)
                        self.assertEqual(data, peers.receive(s, size))
                    s.unwrap() # both close_notify
                self.assertTrue(self.lines_of(p).startswith("OK TLSv" + v))
                self.assertEqual("END EOF", self.lines_of(p))

    def test_a_client_that_is_cut_off_is_told_apart(self):
        p, port = self.serve()
        ctx = ssl.create_default_context(cafile=cert("ca.crt"))
        raw = socket.create_connection(("127.0.0.1", port), 10)
        s = ctx.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=True)
        s.sendall(b"x")
        self.assertEqual(b"x", s.recv(1))
        s.shutdown(socket.SHUT_WR) # of the socket: no close_notify
        self.assertTrue(self.lines_of(p).startswith("OK "))
        self.assertEqual("END ETRUNCATED", self.lines_of(p))
        s.close()

    def test_as_server(self):
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(cert("good.pem"))
        server, _ = self.listener()

        def answer():
            for _ in range(2):
                c, _ = server.accept()
                with ctx.wrap_socket(c, server_side=True) as s:
                    s.sendall(s.recv(100))
                    try:
                        s.unwrap()
                    except OSError:
                        pass

        t = threading.Thread(target=answer)
        t.start()
        lines = self.dial(server.getsockname()[1], "--count", "2").splitlines()
        t.join()
        self.assertEqual(2, len(lines), lines)
        self.assertIn("OK TLSv1.3", lines[0])
        self.assertIn("resumed=0", lines[0])
        self.assertIn("resumed=1", lines[1])


class Curl(Tls):
    def test_a_page_is_fetched(self):
        for v in VERSIONS:
            with self.subTest(v):
                _, port = self.serve("--max", v)
                code, out = self.run_tool(["curl", "-sS", "--cacert", cert("ca.crt"),
                                           "https://localhost:%d/" % port, "--resolve",
                                           "localhost:%d:127.0.0.1" % port])
                self.assertEqual((0, "netio\n"), (code, out))

    def test_a_wrong_name_is_refused_by_it(self):
        _, port = self.serve(pem="other_name.pem")
        code, _ = self.run_tool(["curl", "-sS", "--cacert", cert("ca.crt"),
                                 "https://localhost:%d/" % port, "--resolve",
                                 "localhost:%d:127.0.0.1" % port])
        self.assertEqual(60, code)

    def test_a_client_certificate_is_sent(self):
        p, port = self.serve("--ca", cert("ca.crt"), "--clients", "require")
        code, out = self.run_tool(["curl", "-sS", "--cacert", cert("ca.crt"), "--cert",
                                   cert("client.pem"), "--resolve",
                                   "localhost:%d:127.0.0.1" % port,
                                   "https://localhost:%d/" % port])
        self.assertEqual((0, "netio\n"), (code, out))
        self.assertIn("peer=CN=example.test", self.lines_of(p))


class Gnutls(Tls):
    def test_as_client(self):
        for priority in ("NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"):
            with self.subTest(priority):
                p, port = self.serve()
                code, out = self.run_tool(["gnutls-cli", "--x509cafile", cert("ca.crt"),
                                           "--sni-hostname", "example.test", "--verify-hostname",
                                           "example.test", "--priority", priority, "--port", port,
                                           "127.0.0.1"], b"")
                self.assertIn("Handshake was completed", out)
                self.assertTrue(self.lines_of(p).startswith("OK TLSv1." + priority[-1]))

    def test_as_server(self):
        for v in VERSIONS:
            with self.subTest(v):
                _, port = self.listening("gnutls-serv", "--echo", "--port", "PORT",
                                         "--x509certfile", cert("good.crt"), "--x509keyfile",
                                         cert("key.pem"), "--quiet")
                line = self.dial(port, "--max", v)
                self.assertIn("OK TLSv" + v, line)


class Scanner(Tls):
    def test_sslscan_finds_three_and_three_suites_and_nothing_weak(self):
        if shutil.which("sslscan") is None:
            self.skipTest("no sslscan")
        _, port = self.serve("--count", "200", pem="rsa.pem")
        _, out = self.run_tool(["sslscan", "--no-colour", "--show-sigs", "127.0.0.1:%d" % port],
                               timeout=60)
        for old in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
            self.assertRegex(out, old.replace(".", r"\.") + r" +disabled")
        suites = re.findall(r"^(?:Preferred|Accepted) +(\S+) +\d+ bits +(\S+)", out, re.M)
        self.assertEqual([("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
                          ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
                          ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
                          ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256"),
                          ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"),
                          ("TLSv1.2", "ECDHE-RSA-CHACHA20-POLY1305")], suites)
        self.assertIn("Session renegotiation not supported", out)
        self.assertNotRegex(out, "rsa_pkcs1_sha1|ecdsa_sha1")
        self.assertIn("not vulnerable to heartbleed", out)


if __name__ == "__main__":
    peers.main()
