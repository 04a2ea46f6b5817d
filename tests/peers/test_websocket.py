#!/usr/bin/env python3
# NATIVE: there is nothing in it to run under an emulator
"""WebSocket between netio's codec and others': Python's wsproto, npm's ws, and a model written from
the RFC's text. Random streams, sound ones and broken ones, in both roles; handshakes; whole
connections to ws over TCP."""
import os
import random
import shutil
import socket
import struct
import subprocess

import peers
from codec import Codec

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
ROUNDS = int(os.environ.get("NETIO_ROUNDS", "150"))    # of each kind of stream
LIMIT = 70000


# --- the model ------------------------------------------------------------------------------------

def code_ok(code):
    return 1000 <= code <= 1014 and not 1004 <= code <= 1006 or 3000 <= code <= 4999


def utf8_ok(data, last):
    """Whether these bytes are UTF-8, or the front of it if they are not the last."""
    for cut in range(1 if last else 4):
        try:
            data[:len(data) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        rest = data[len(data) - cut:]
        # What was cut off must begin a character.
        return not rest or any(utf8_ok(rest + tail, True) for tail in TAILS.get(len(rest), ()))
    return False


# Ends that make a character out of a front of it, whatever it is.
TAILS = {1: [b"\x80", b"\xa0\x80", b"\x80\x80", b"\x90\x80\x80", b"\x80\x80\x80"],
         2: [b"\x80", b"\x80\x80"], 3: [b"\x80"]}


def masked_with(key, data):
    keys = (key * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(
        len(data), "little")


class Broken(Exception):
    def __init__(self, code, why=""):
        super().__init__(code)
        self.code, self.why = code, why


def model(data, server, limit=LIMIT):
    """Messages and control frames in a stream as (type, payload), and the code to close with if it
    is broken, 1000 if not; why. It reads on after a close frame, as netio's decoder does."""
    at, kind, message, out = 0, 0, b"", []
    try:
        while at < len(data):
            first, at = data[at], at + 1
            opcode, fin = first & 15, first >> 7
            if first & 0x70 or 3 <= opcode <= 7 or opcode > 10:
                raise Broken(1002)
            if opcode >= 8 and not fin or opcode < 8 and (opcode == 0) != (kind != 0):
                raise Broken(1002)
            if at == len(data):
                break
            second, at = data[at], at + 1
            size = second & 127
            if bool(second & 128) != server or opcode >= 8 and size > 125:
                raise Broken(1002)
            if opcode == CLOSE and size == 1:
                raise Broken(1002)
            if size >= 126:
                width = 2 if size == 126 else 8
                part = data[at:at + width]
                if width == 8 and (part[:1] > b"\x7f" or part[:6] == bytes(6)):
                    raise Broken(1002, "length")       # before the rest of it is there
                if len(part) < width:
                    break
                size = int.from_bytes(part, "big")
                at += width
                if size < (126 if width == 2 else 65536):
                    raise Broken(1002, "length")
            if server and len(data) - at < 4:
                break
            if opcode < 8 and len(message) + size > limit:
                raise Broken(1009)
            key = data[at:at + 4] if server else b"\0\0\0\0"
            at += len(key) if server else 0
            piece = data[at:at + size]
            piece = masked_with(key, piece) if server else piece
            whole = len(piece) == size
            at += len(piece)
            if opcode >= 8:
                if opcode == CLOSE and len(piece) >= 2:
                    if not code_ok(int.from_bytes(piece[:2], "big")):
                        raise Broken(1002, "code")
                    if not utf8_ok(piece[2:], whole):
                        raise Broken(1007)
                if whole:
                    out.append((opcode, piece))
                continue
            kind = opcode or kind
            message += piece
            if kind == TEXT and not utf8_ok(message, whole and fin):
                raise Broken(1007, "text")
            if whole and fin:
                out.append((kind, message))
                kind, message = 0, b""
    except Broken as e:
        return out, e.code, e.why
    return out, 1000, "unfinished" if message or kind else ""


# --- random streams -------------------------------------------------------------------------------

def random_text(r, size):
    pool = "abc xyz\u00e9\u00fc\u03ba\u20ac\u65e5\U0001f600\U0010ffff\u07ff\u0800\ufffd\n\0"
    return "".join(r.choice(pool) for _ in range(size)).encode()


def random_size(r):
    return r.choice([0, 1, 2, 7, 124, 125, 126, 127, 128, r.randrange(300), r.randrange(3000)] +
                    ([65535, 65536, r.randrange(60000)] if r.randrange(40) == 0 else [5]))


def frame(r, first, payload, masked, stretch=0):
    """A frame; stretch 1, 2: its length in more bytes than it needs."""
    size = len(payload)
    width = max(0 if size < 126 else 1 if size < 65536 else 2, stretch)
    mark = 128 if masked else 0
    head = bytes([first, mark | (size if width == 0 else 125 + width)])
    head += b"" if width == 0 else struct.pack("!H" if width == 1 else "!Q", size)
    if masked:
        key = bytes(r.randrange(256) for _ in range(4))
        head += key
        payload = masked_with(key, payload)
    return head + payload


def close_payload(r):
    code = r.choice([1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 4999])
    return struct.pack("!H", code) + random_text(r, r.randrange(20)) if r.randrange(4) else b""


def stream(r, masked, close=True):
    """A sound stream of a few messages with control frames between; the parts and the bytes."""
    out = []
    for _ in range(r.randrange(1, 6)):
        kind = r.choice([TEXT, BINARY])
        size = random_size(r)
        data = random_text(r, min(size, 4000)) if kind == TEXT else r.getrandbits(
            8 * size).to_bytes(size, "little") if size else b""
        cuts = sorted(r.randrange(len(data) + 1) for _ in range(r.choice([0, 0, 1, 2, 5])))
        pieces = [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]
        for i, piece in enumerate(pieces):
            while r.randrange(4) == 0:
                control = r.choice([PING, PONG])
                out.append(frame(r, 0x80 | control, r.getrandbits(8 * 125).to_bytes(
                    125, "little")[:r.choice([0, 1, 125, r.randrange(126)])], masked))
            last = i == len(pieces) - 1
            out.append(frame(r, (0x80 if last else 0) | (kind if i == 0 else 0), piece, masked))
    if close and r.randrange(2):
        out.append(frame(r, 0x80 | CLOSE, close_payload(r), masked))
    return out


def broken_stream(r, masked):
    """A stream with one to three things wrong with it, or a few bits other than they were."""
    parts = stream(r, masked)
    for _ in range(r.randrange(1, 4)):
        i = r.randrange(len(parts) + 1)
        kind = r.randrange(9)
        if kind == 0:                                  # any first byte
            parts.insert(i, frame(r, r.randrange(256), b"abc"[:r.randrange(4)], masked))
        elif kind == 1:                                # not masked, or masked
            parts.insert(i, frame(r, 0x82, b"abc", not masked))
        elif kind == 2:                                # a length in more bytes than needed
            parts.insert(i, frame(r, 0x82, b"x" * r.randrange(126), masked, r.choice([1, 2])))
        elif kind == 3:                                # a control frame that is too long, or cut
            parts.insert(i, frame(r, r.choice([0x88, 0x89, 0x8a, 9, 10, 8]),
                                  b"x" * r.choice([1, 126, 200]), masked))
        elif kind == 4:                                # text that is none
            bad = r.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3",
                            b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"\xf8\x88\x80\x80\x80"])
            parts.insert(i, frame(r, 0x81, b"ab" + bad + b"cd"[:r.randrange(3)], masked))
        elif kind == 5:                                # closing with any code, any reason
            parts.insert(i, frame(r, 0x88, struct.pack("!H", r.choice(
                [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, r.randrange(65536)])) +
                r.choice([b"", b"ok", b"\xff", b"\xc3"]), masked))
        elif kind == 6:                                # longer than the limit
            parts.insert(i, frame(r, 0x82, b"x" * (LIMIT + r.randrange(2)), masked))
        elif kind == 7 and parts:                      # a bit
            part = bytearray(parts[i % len(parts)])
            part[r.randrange(min(len(part), 14))] ^= 1 << r.randrange(8)
            parts[i % len(parts)] = bytes(part)
        elif parts:                                    # a frame twice, or not at all
            j = i % len(parts)
            parts[j:j + 1] = r.choice([[], [parts[j], parts[j]]])
    return parts


# --- the others -----------------------------------------------------------------------------------

def of_wsproto(module, data, server, r):
    """As `model`, by wsproto. It has no limit and ends at a close frame."""
    protocol = module.FrameProtocol(client=not server, extensions=[])
    out, message = [], b""
    while data:
        size = r.choice([1, 7, 100, 5000, len(data)])
        protocol.receive_bytes(data[:size])
        data = data[size:]
        try:
            for f in protocol.received_frames():
                piece = f.payload
                if f.opcode == CLOSE:
                    code, reason = piece
                    out.append((CLOSE, b"" if code == 1005 else
                                struct.pack("!H", code) + reason.encode()))
                    return out, 1000
                if isinstance(piece, str):
                    piece = piece.encode()
                if f.opcode >= CLOSE:
                    out.append((int(f.opcode), bytes(piece)))
                    continue
                message += piece
                if f.message_finished:
                    out.append((int(f.opcode), message))
                    message = b""
        except module.ParseFailed as e:
            return out, int(e.code)
    return out, 1000


class Ws:
    """npm's ws in a process of its own."""

    def __init__(self, *words, **popen):
        self.process = subprocess.Popen(
            ["node", os.path.join(peers.HERE, "ws_peer.js")] + [str(w) for w in words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=node_environment(), **popen)

    def line(self):
        return self.process.stdout.readline().decode().strip()

    def do(self, *words):
        words = [(w.hex() or "-") if isinstance(w, (bytes, bytearray)) else str(w) for w in words]
        self.process.stdin.write((" ".join(words) + "\n").encode())
        self.process.stdin.flush()
        return self.line()

    def read(self, data, server, seed):
        words = self.do("read", "server" if server else "client", LIMIT, seed, data).split()
        out = []
        for word in words[1:]:
            parts = word.split(",")
            payload = bytes.fromhex(parts[-1])
            if parts[0] == "8":
                payload = b"" if parts[1] == "1005" else struct.pack("!H", int(parts[1])) + payload
            out.append((int(parts[0]), payload))
        return out, 1000 if words[0] == "OK" else int(words[0])

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


def node_environment():
    """With the folders where Debian and npm put modules for everybody."""
    folders = [os.environ.get("NODE_PATH", ""), "/usr/share/nodejs", "/usr/lib/node_modules",
               "/usr/local/lib/node_modules"]
    return dict(os.environ, NODE_PATH=":".join(f for f in folders if f))


def ws_is_there():
    if not shutil.which("node"):
        return False
    found = subprocess.run(["node", "-e", "require('ws').Receiver || process.exit(1)"],
                           env=node_environment(), stderr=subprocess.DEVNULL)
    return found.returncode == 0


def up_to_close(frames):
    """The frames up to and with the first close: there the others end."""
    for i, (kind, _) in enumerate(frames):
        if kind == CLOSE:
            return frames[:i + 1], True
    return frames, False


class Case(peers.unittest.TestCase):
    longMessage = True

    @classmethod
    def setUpClass(cls):
        cls.codec = Codec()

    @classmethod
    def tearDownClass(cls):
        assert cls.codec.end() == 0

    def netio(self, data, server, seed):
        name = "%s:%d" % ("server" if server else "client", LIMIT)
        err, code, frames = self.codec.decode(name, data, seed)
        return [(f.type, f.payload) for f in frames], code

    def same(self, want, got, data, what):
        if want != got:
            self.fail("%s: %s and %s differ for %s" % (
                what, [(k, p[:40]) for k, p in want[0]], [(k, p[:40]) for k, p in got[0]],
                data[:600].hex()) + " code %d, %d" % (want[1], got[1]))

    def streams(self, make, others=None):
        """Each stream goes to the model and to netio, and to `others` or once more in pieces."""
        for i in range(ROUNDS):
            r = random.Random("%s %d" % (self.id(), i))
            server = bool(i % 2)
            data = b"".join(make(r, server))
            want = model(data, server)
            with self.subTest(i):
                self.same(want[:2], self.netio(data, server, 0), data, "the model")
                if others:
                    others(r, data, server, want, i)
                else:
                    self.same(want[:2], self.netio(data, server, i + 1), data, "the cut model")


class Model(Case):
    def test_sound_streams_are_read_as_the_model_does(self):
        self.streams(stream)

    def test_broken_streams_are_refused_as_the_model_does(self):
        self.streams(broken_stream)

    def test_cut_streams_are_judged_as_the_model_does(self):
        def cut(r, masked):
            data = b"".join(broken_stream(r, masked) if r.randrange(2) else stream(r, masked))
            return [data[:r.randrange(len(data) + 1)]]
        self.streams(cut)


class Wsproto(Case):
    def setUp(self):
        try:
            from wsproto import frame_protocol
        except ImportError:
            self.skipTest("no wsproto (pip: wsproto; Debian: python3-wsproto)")
        self.module = frame_protocol

    def compare(self, r, data, server, want, i):
        frames, closed = up_to_close(want[0])
        code = 1000 if closed else want[1]
        if code == 1009 or want[2] == "code" or any(
                k == CLOSE and p[:2] == b"\x03\xf6" for k, p in frames):
            return  # it has no limit, and takes other codes: 1014 is younger than it
        got = of_wsproto(self.module, data, server, r)
        if code == 1002 and got[1] == 1000:            # it waits for a whole header
            got = of_wsproto(self.module, data + bytes(16), server, r)
        self.same((frames, code), got, data, "wsproto")

    def test_sound_streams_are_read_as_wsproto_does(self):
        self.streams(stream, self.compare)

    def test_broken_streams_are_refused_as_wsproto_does(self):
        self.streams(broken_stream, self.compare)

    def test_what_wsproto_writes_is_read(self):
        for i in range(ROUNDS):
            r = random.Random(i)
            server = bool(i % 2)                       # who reads
            writer = self.module.FrameProtocol(client=server, extensions=[])
            data, want = b"", []
            for _ in range(r.randrange(1, 5)):
                text = r.randrange(2)
                parts = [random_text(r, r.randrange(200)).decode() if text else
                         os.urandom(random_size(r)) for _ in range(r.randrange(1, 4))]
                for j, part in enumerate(parts):
                    last = j == len(parts) - 1
                    data += bytes(writer.send_data(part, fin=last))
                    if last:
                        want.append((BINARY - text, b"".join(p.encode() if text else p
                                                             for p in parts)))
                    if r.randrange(3) == 0:
                        data += bytes(writer.ping(b"ping"))
                        want.append((PING, b"ping"))
            data += bytes(writer.close(1001, "going"))
            want.append((CLOSE, b"\x03\xe9going"))
            with self.subTest(i):
                err, code, frames = self.codec.decode("server" if server else "client", data, i)
                self.assertEqual(("OK", 1000), (err, code))
                self.assertEqual(want, [(f.type, f.payload) for f in frames])

    def test_what_netio_writes_is_read_by_wsproto(self):
        for i in range(ROUNDS):
            r = random.Random(i)
            client = bool(i % 2)
            data, want = netio_stream(self.codec, r, client)
            with self.subTest(i):
                got = of_wsproto(self.module, data, client, r)
                self.same((want, 1000), got, data, "wsproto")

    def test_handshakes_agree_in_both_roles(self):
        from wsproto import WSConnection, ConnectionType, events
        for i in range(100):
            r = random.Random(i)
            err, key, request = self.codec.request("example.com:8080", "/chat?%d" % i)
            self.assertEqual("OK", err)
            server = WSConnection(ConnectionType.SERVER)
            server.receive_data(request)
            event = next(server.events())
            self.assertIsInstance(event, events.Request)
            self.assertEqual(("example.com:8080", "/chat?%d" % i), (event.host, event.target))
            answer = server.send(events.AcceptConnection())
            self.assertEqual("OK", self.codec.check(key, answer))
            other = "B" + key[1:] if key[0] == "A" else "A" + key[1:]
            self.assertEqual("EPROTO", self.codec.check(other, answer))
            # One that offers compression is answered without.
            from wsproto.extensions import PerMessageDeflate
            client = WSConnection(ConnectionType.CLIENT)
            offer = [PerMessageDeflate()] if r.randrange(2) else []
            request = client.send(events.Request(host="a.example", target="/", extensions=offer))
            err, answer = self.codec.answer(request)
            self.assertEqual("OK", err)
            client.receive_data(answer)
            event = next(client.events())
            self.assertIsInstance(event, events.AcceptConnection)
            self.assertEqual([], list(event.extensions))


def netio_stream(codec, r, client):
    """A sound stream that netio wrote, and what is in it."""
    name, data, want = "client" if client else "server", b"", []
    for _ in range(r.randrange(1, 5)):
        kind = r.choice([TEXT, BINARY])
        size = random_size(r)
        whole = random_text(r, min(size, 3000)) if kind == TEXT else os.urandom(size)
        cuts = sorted(r.randrange(len(whole) + 1) for _ in range(r.choice([0, 0, 1, 3])))
        pieces = [whole[a:b] for a, b in zip([0] + cuts, cuts + [len(whole)])]
        for j, piece in enumerate(pieces):
            if r.randrange(4) == 0:
                ping = os.urandom(r.randrange(126))
                data += codec.encode(name, PING, ping)
                want.append((PING, ping))
            data += codec.encode(name, kind, piece, more=j < len(pieces) - 1, continues=j > 0)
        want.append((kind, whole))
    if r.randrange(2):
        payload = close_payload(r)
        data += codec.encode(name, CLOSE, payload)
        want.append((CLOSE, payload))
    return data, want


class NpmWs(Case):
    def setUp(self):
        if not ws_is_there():
            self.skipTest("no ws for node (npm: ws; Debian: nodejs, node-ws)")

    def peer(self, *words):
        ws = Ws(*words)
        self.addCleanup(ws.end)
        return ws

    def compare(self, ws):
        def same(r, data, server, want, i):
            frames, closed = up_to_close(want[0])
            code = 1000 if closed else want[1]
            got = ws.read(data, server, i)
            if code == 1002 and got[1] == 1000:        # it waits for a whole header
                got = ws.read(data + bytes(16), server, i)
            if want[2] == "length" and not closed:
                # It takes lengths in more bytes than they need, so only what came before is alike.
                self.assertEqual(frames, got[0][:len(frames)])
            elif want[2] == "text" and not closed:
                # It looks at text when the message is whole: then what comes before its end counts.
                self.assertEqual(frames, got[0][:len(frames)])
                if got[1] not in (1002, 1009) and got[1] != 1000:
                    self.assertEqual(1007, got[1])
            else:
                self.same((frames, code), got, data, "ws")
        return same

    def test_sound_streams_are_read_as_ws_does(self):
        self.streams(stream, self.compare(self.peer("codec")))

    def test_broken_streams_are_refused_as_ws_does(self):
        self.streams(broken_stream, self.compare(self.peer("codec")))

    def test_what_netio_writes_is_read_by_ws(self):
        ws = self.peer("codec")
        for i in range(ROUNDS):
            r = random.Random(i)
            client = bool(i % 2)
            data, want = netio_stream(self.codec, r, client)
            with self.subTest(i):
                self.same((want, 1000), ws.read(data, client, i), data, "ws")

    def test_what_ws_writes_is_read(self):
        ws = self.peer("codec")
        for i in range(ROUNDS):
            r = random.Random(i)
            client = bool(i % 2)                       # who writes
            data, want, message = b"", [], b""
            kinds = [(TEXT, 0), (0, 0), (0, 1), (PING, 1), (BINARY, 1), (PONG, 1)]
            for opcode, fin in kinds:
                payload = random_text(r, 20) if opcode < 8 else os.urandom(r.randrange(126))
                data += bytes.fromhex(ws.do("write", "client" if client else "server", opcode, fin,
                                            payload))
                message = message + payload if opcode < 8 and opcode != BINARY else message
                if opcode >= 8 or opcode == BINARY:
                    want.append((opcode, payload))
                elif fin:
                    want.append((TEXT, message))
            with self.subTest(i):
                self.same((want, 1000), self.netio(data, client, i), data, "ws")

    def test_server_of_ws_echoes_a_netio_client(self):
        server = self.peer("server")
        port = int(server.line())
        s = socket.create_connection(("127.0.0.1", port), 10)
        self.addCleanup(s.close)
        s.settimeout(20)
        err, key, request = self.codec.request("127.0.0.1:%d" % port, "/")
        s.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += s.recv(4096)
        self.assertTrue(answer.endswith(b"\r\n\r\n"))
        self.assertEqual("OK", self.codec.check(key, answer))
        r = random.Random(1)
        for i in range(200):
            data, want = netio_stream(self.codec, r, True)
            messages = [(k, p) for k, p in want if k in (TEXT, BINARY)]
            if any(k == CLOSE for k, _ in want):       # that is for the end
                continue
            pongs = [(PONG, p) for k, p in want if k == PING]
            s.sendall(data)
            got, pending = [], b""
            while len(got) < len(messages) + len(pongs):
                piece = s.recv(1 << 16)
                self.assertTrue(piece, "ws closed the connection")
                pending += piece
                err, _, frames = self.codec.decode("client", pending)
                self.assertEqual("OK", err)
                got = [(f.type, f.payload) for f in frames]
            self.assertEqual(messages, [f for f in got if f[0] != PONG])
            self.assertEqual(pongs, [f for f in got if f[0] == PONG])
        s.sendall(self.codec.encode("client", CLOSE, b"\x10\xe1bye"))
        end = b""
        while True:
            piece = s.recv(4096)
            if not piece:
                break
            end += piece
        err, _, frames = self.codec.decode("client", end)
        self.assertEqual([(CLOSE, b"\x10\xe1")], [(f.type, f.payload[:2]) for f in frames])

    def test_client_of_ws_is_echoed_by_netio(self):
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(20)
        client = self.peer("client", "ws://127.0.0.1:%d/" % listener.getsockname()[1], 300, 5)
        s, _ = listener.accept()
        self.addCleanup(s.close)
        s.settimeout(20)
        head = b""
        while b"\r\n\r\n" not in head:
            head += s.recv(4096)
        self.assertIn(b"permessage-deflate", head)     # it offers compression
        err, answer = self.codec.answer(head)
        self.assertEqual("OK", err)
        s.sendall(answer)
        pending, closed = b"", False
        while not closed:
            piece = s.recv(1 << 16)
            self.assertTrue(piece, "ws closed the connection")
            pending += piece
            err, _, frames = self.codec.decode("server", pending)
            self.assertEqual("OK", err)
            used = frames_end(pending, len(frames))
            for f in frames:
                reply = {PING: PONG, PONG: None}.get(f.type, f.type)
                if reply:
                    s.sendall(self.codec.encode("server", reply, f.payload))
                closed = closed or f.type == CLOSE
            pending = pending[used:]
        s.shutdown(socket.SHUT_WR)
        self.assertEqual("closed 4321 enough after 300", client.line())


def frames_end(data, count):
    """Where the first `count` messages and control frames end, all masked."""
    at, begin = 0, 0
    while count:
        size = data[at + 1] & 127
        opcode, fin = data[at] & 15, data[at] >> 7
        head = 6 if size < 126 else 8 if size == 126 else 14
        if size >= 126:
            size = int.from_bytes(data[at + 2:at + head - 4], "big")
        at += head + size
        if opcode >= 8 or fin:
            count -= 1
            begin = at
    return begin


if __name__ == "__main__":
    peers.LIMIT_S += ROUNDS                            # long runs are asked for by hand
    peers.main()
