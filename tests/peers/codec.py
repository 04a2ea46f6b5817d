"""netio's codecs as an object: codec.c compiled, started, spoken to. See there for the commands."""
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def compiled():
    """The words that start it. NETIO_CODEC is used as it is, such as "wine codec.exe"."""
    if os.environ.get("NETIO_CODEC"):
        return os.environ["NETIO_CODEC"].split()
    source = os.environ.get("NETIO_SOURCE", os.path.join(HERE, "..", ".."))
    folder = tempfile.mkdtemp(prefix="netio-")
    out = os.path.join(folder, "codec")
    words = os.environ.get("CC", "cc").split()
    words += os.environ.get("CFLAGS", "-std=gnu99 -g").split()
    words += ["-I" + source, os.path.join(HERE, "codec.c"), "-o", out, "-pthread"]
    if subprocess.run(words).returncode != 0:
        print("FAIL codec.c does not compile")
        sys.exit(1)
    return [out]


class Frame:
    def __init__(self, word):
        kind, more, continues, payload, header = word.split(",")
        self.type, self.more, self.continues = int(kind), more == "1", continues == "1"
        self.payload, self.header = bytes.fromhex(payload), bytes.fromhex(header)


class Head:
    def __init__(self, words):
        data = [b"" if w == "-" else bytes.fromhex(w) for w in words[9:]]
        self.status, self.minor = int(words[0]), int(words[1])
        self.method, self.target, self.reason = (
            b"" if w == "-" else bytes.fromhex(w) for w in words[2:5])
        self.length = int(words[5])
        self.chunked, self.keep_alive, self.upgrade = (w == "1" for w in words[6:9])
        self.fields = list(zip(data[::2], data[1::2]))


class Codec:
    def __init__(self):
        self.words = compiled()
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def do(self, *words):
        words = [(w.hex() or "-") if isinstance(w, (bytes, bytearray)) else str(w) for w in words]
        self.process.stdin.write((" ".join(words) + "\n").encode())
        self.process.stdin.flush()
        answer = self.process.stdout.readline().decode().split()
        if not answer or answer[0] == "?":
            raise AssertionError("codec: %s after %s" % (answer, " ".join(words)[:2000]))
        return answer

    def decode(self, name, data, seed=0):
        """What ended it, the code to close with, the frames."""
        answer = self.do("decode", name, seed, data)
        return answer[0], int(answer[1]), [Frame(w) for w in answer[2:]]

    def encode(self, name, kind, payload, more=False, continues=False):
        err, data = self.do("encode", name, "%d,%d,%d" % (kind, more, continues), payload)
        if err != "OK":
            raise AssertionError("encode: " + err)
        return b"" if data == "-" else bytes.fromhex(data)

    def parse(self, data):
        answer = self.do("parse", data)
        return answer[0], Head(answer[1:]) if answer[0] == "OK" else None

    def request(self, host, target):
        err, key, data = self.do("request", host, target)
        return err, key, bytes.fromhex(data)

    def answer(self, data):
        err, out = self.do("answer", data)
        return err, b"" if out == "-" else bytes.fromhex(out)

    def check(self, key, data):
        return self.do("check", key, data)[0]

    def proxy(self, data):
        """Error, length, addresses, and the TLVs as a list of type and value."""
        words = self.do("proxy", data)
        tlvs = [word.split("=") for word in words[4:]]
        return words[0], int(words[1]), words[2:4], [
            (int(t), b"" if v == "-" else bytes.fromhex(v)) for t, v in tlvs]

    def header(self, version, src, dst, checksum=False):
        err, data = self.do("header", version, src, dst, int(checksum))
        if err != "OK":
            raise AssertionError("header: " + err)
        return bytes.fromhex(data)

    def end(self):
        self.process.stdin.close()
        code = self.process.wait(10)
        self.process.stdout.close()
        if self.words[0].endswith("/codec"):
            os.remove(self.words[0])
            os.rmdir(os.path.dirname(self.words[0]))
        return code
