#!/usr/bin/env python3
"""Drives examples/tls_echo_server.c: openssl s_client and Python's ssl as clients, while the
certificate is exchanged under it."""
import shutil
import signal
import socket
import ssl

from common import (EMULATOR, Run, certs, check, check_equal, fact, main, need_tls, path, payload,
                    program, run, tool)

PROGRAM = program("tls_echo_server")
CERT, KEY = path("cert.pem"), path("key.pem")


def install(cert, key="key.pem"):
    shutil.copy(certs(cert), CERT)
    shutil.copy(certs(key), KEY)


def server(*more, cert="good.pem"):
    install(cert)
    return Run([PROGRAM, CERT, KEY, "127.0.0.1:0"] + list(more))


def connect(port, name="example.test", client=None, **more):
    context = ssl.create_default_context(cafile=certs("ca.pem"))
    if client:
        context.load_cert_chain(certs(client), certs("key.pem"))
    for key, value in more.items():
        setattr(context, key, value)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname=name)


def serial(s):
    return s.getpeercert()["serialNumber"]


def check_echo(s, data=b"ping"):
    s.sendall(data)
    back = b""
    while len(back) < len(data):
        got = s.recv(65536)
        check(got, "the end after %d of %d bytes" % (len(back), len(data)))
        back += got
    check_equal(data, back, "echo")


@fact
def without_a_library_it_says_so():
    if EMULATOR:
        code, _, err = run([PROGRAM, "cert.pem", "key.pem"])
        check_equal(1, code)
        check("without a TLS library" in err, err)
    else:
        need_tls()


@fact
def bad_use_and_bad_files_are_told():
    need_tls()
    check_equal(2, run([PROGRAM, "one"])[0], "exit code")
    code, _, err = run([PROGRAM, "/nowhere/cert.pem", "/nowhere/key.pem"])
    check_equal((1, True), (code, "/nowhere/cert.pem" in err), err)
    install("good.pem")
    shutil.copy(certs("ed25519.key"), KEY)
    code, _, err = run([PROGRAM, CERT, KEY])
    check_equal((1, True), (code, "key" in err), err)


@fact
def openssl_verifies_and_echoes():
    with server() as p:
        port = p.port()
        client = Run([tool("openssl"), "s_client", "-connect", "127.0.0.1:%d" % port, "-quiet",
                      "-servername", "example.test", "-verify_hostname", "example.test",
                      "-verify_return_error", "-CAfile", certs("ca.pem")], emulate=False)
        with client as c:
            c.feed(b"hello\n")
            c.expect(rb"hello\n")
            p.expect(rb"TLSv1\.3 TLS_\w+, client without a certificate")


@fact
def each_version_and_a_resumption():
    with server() as p:
        port = p.port()
        versions = ((ssl.TLSVersion.TLSv1_2, b"TLSv1.2"), (ssl.TLSVersion.TLSv1_3, b"TLSv1.3"))
        for version, text in versions:
            context = ssl.create_default_context(cafile=certs("ca.pem"))
            context.minimum_version = context.maximum_version = version
            session = None
            for resumed in (False, True):
                raw = socket.create_connection(("127.0.0.1", port))
                with context.wrap_socket(raw, server_hostname="example.test", session=session) as s:
                    check_echo(s)  # in 1.3 the ticket comes with it
                    check_equal(resumed, s.session_reused, "resumed")
                    session = s.session
            p.expect(text + rb" \S+ resumed")


@fact
def ten_megabytes_come_back():
    with server() as p, connect(p.port()) as s:
        data = payload(10 << 20)
        for at in range(0, len(data), 1 << 18):
            check_echo(s, data[at:at + (1 << 18)])


@fact
def a_reload_drops_nobody():
    with server() as p:
        port = p.port()
        with connect(port) as old:
            check_echo(old)
            first = serial(old)
            install("rsa.pem", "rsa.key")
            p.process.send_signal(signal.SIGHUP)
            p.expect(rb"reloaded")
            check_echo(old, b"still here")
            with connect(port) as new:
                check_echo(new)
                check(serial(new) != first, "the new client got the old certificate")
            check_echo(old, b"and still")


@fact
def a_bad_file_keeps_the_old_certificate():
    with server() as p:
        port = p.port()
        with connect(port) as old:
            first = serial(old)
            with open(CERT, "w") as f:
                f.write("not a certificate\n")
            p.process.send_signal(signal.SIGHUP)
            p.expect(rb"kept the old certificate")
            p.expect(rb"cert\.pem", p.err)
            check_echo(old)
        with connect(port) as new:
            check_echo(new)
            check_equal(first, serial(new), "serial")


@fact
def clients_must_be_known_where_a_ca_is_given():
    with server(certs("ca.pem")) as p:
        port = p.port()
        with connect(port, client="client.pem") as s:
            check_echo(s)
            p.expect(rb"client \S*CN=")
        for client in (None, "client_other.pem"):
            before = len(bytes(p.err))
            try:
                with connect(port, client=client) as s:
                    check_equal(b"", s.recv(1), "an answer to an unknown client")
            except (ssl.SSLError, ConnectionError):
                pass
            p.expect(rb"(?s).{%d}.*refused: " % before, p.err)


@fact
def who_does_not_speak_tls_is_refused():
    with server() as p:
        with socket.create_connection(("127.0.0.1", p.port())) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            got = b""
            try:
                while True:
                    data = s.recv(100)
                    if not data:
                        break
                    got += data
            except ConnectionError:
                pass
            check(len(got) <= 7, "answer %r" % got)  # an alert at most
        p.expect(rb"refused: .*TLS", p.err)


@fact
def a_signal_ends_it_cleanly():
    with server() as p, connect(p.port()) as s:
        check_echo(s)
        p.process.send_signal(signal.SIGTERM)
        check_equal(b"", s.recv(1), "the end")  # close_notify: else Python raises
        s.unwrap()
        check_equal(0, p.wait(), "exit code")


main("tls_echo_server")
