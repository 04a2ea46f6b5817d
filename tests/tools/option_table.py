#!/usr/bin/env python3
"""The table of socket options in README.md, made from what netio.h itself goes by.

    option_table.py              print the table
    option_table.py --write      put it into README.md, between its markers
    option_table.py --check      say where README.md differs; what cannot be asked is skipped

Names and the kinds of sockets come from the rows of netio__options, meanings and units from the
comments of enum netio_option. Whether a system has an option is found out by its own headers: a
row's number goes through the preprocessor of a compiler for that system, and is either something or
NETIO__NO_OPTION. CC, NETIO_MINGW and NETIO_ZIG name other compilers than the usual ones.
"""
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
README = os.path.join(ROOT, "README.md")
BEGIN = "<!-- options: written by tests/tools/option_table.py --write -->"
END = "<!-- /options -->"
COLUMNS = ["Linux", "macOS", "FreeBSD", "NetBSD", "OpenBSD", "Windows"]

# What the headers do not tell: the version of a system that brought an option, where that is recent
# enough to matter. The running system is asked anyway.
SINCE = {
    "Linux": {"FASTOPEN_CONNECT": "4.11", "RECV_SEGMENTS": "5.0", "DROPS": "4.12"},
    "Windows": {"KEEPIDLE": "1709", "KEEPINTVL": "1709", "KEEPCNT": "1703", "FASTOPEN": "1607",
                "RECV_SEGMENTS": "2004"},
}


def fail(text):
    sys.exit("option_table.py: " + text)


# --- netio.h -------------------------------------------------------------------------------------

def between(text, first, last):
    """What stands between two strings, which must be there."""
    start = text.find(first)
    end = text.find(last, start)
    if start < 0 or end < 0:
        fail("netio.h has no %r ... %r" % (first, last))
    return text[start + len(first):end]


def meanings(header):
    """[name, comment] of each option, in the order of the enum."""
    found = []
    for line in between(header, "typedef enum netio_option {", "} netio_option;").split("\n"):
        code, _, comment = (part.strip() for part in line.partition("//"))
        match = re.match(r"NETIO_OPT_(\w+)", code)
        if match:
            found.append([match.group(1), comment])
        elif found and not code and re.match(r" {12}", line):
            found[-1][1] += " " + comment  # a comment that goes on
    return found


def rows(header):
    """name: (kind, flags, numbers) of each row of netio__options."""
    text = between(header, "static const netio__option_row netio__options[] = {", "\n};")
    found = {}
    for row in re.findall(r"\{([^{}]*)\}", text):
        fields = [field.strip() for field in row.split(",")]
        if len(fields) != 9:
            fail("a row of netio__options has %d fields: %s" % (len(fields), row))
        name = fields[1].strip('"')
        numbers = ["NETIO__NO_OPTION" if n == "NETIO__NO" else n for n in fields[7:]]
        found[name] = (fields[2], set(re.findall(r"NETIO__(\w+)", fields[3])), numbers)
    return found


def sockets(flags):
    if "FOR_TCP" in flags:
        return "TCP"
    if "FOR_UDP" in flags:
        return "UDP"
    if "FOR_RAW" in flags:
        return "raw"
    if "FOR_IPV6" in flags:
        return "IPv6"
    if "FOR_DGRAM" in flags:
        return "UDP" if "BY_FAMILY" in flags else "datagram"
    return "IP" if flags & {"FOR_IP", "BY_FAMILY"} else "all"


# --- compilers -----------------------------------------------------------------------------------

def zig(target):
    """A command, or None; zig brings the headers of several systems."""
    program = os.environ.get("NETIO_ZIG") or shutil.which("zig")
    if program and os.path.exists(program):
        command = [program]
    else:
        command = [sys.executable, "-m", "ziglang"]
        if subprocess.run(command + ["version"], capture_output=True).returncode != 0:
            return None
    return command + ["cc", "-target", target]


def compiler(system):
    """(command, None), or (None, why there is none)."""
    if system == "Linux" and sys.platform.startswith("linux"):
        command = shlex.split(os.environ.get("CC") or "cc")
        return (command, None) if shutil.which(command[0]) else (None, "no C compiler")
    if system == "Windows":
        mingw = os.environ.get("NETIO_MINGW") or "x86_64-w64-mingw32-gcc"
        return ([mingw], None) if shutil.which(mingw) else (None, "no " + mingw)
    target = {"Linux": "x86_64-linux-gnu", "macOS": "x86_64-macos"}.get(
        system, "x86_64-" + system.lower())
    command = zig(target)
    return (command, None) if command else (None, "no zig (pip install ziglang)")


def preprocess(command, rows):
    """(rest of the text, {name: numbers}) after a compiler's preprocessor; raises OSError."""
    with tempfile.TemporaryDirectory(prefix="netio-options.") as work:
        source = os.path.join(work, "options.c")
        with open(source, "w") as f:
            f.write('#define NETIO_IMPLEMENTATION\n#include "netio.h"\n')
            for name, (_, _, numbers) in [("", (0, 0, ["NETIO__NO_OPTION"]))] + list(rows.items()):
                f.write('\n"netio-row %s" # %s #\n' % (name, " # ".join(numbers)))
        done = subprocess.run(command + ["-std=c99", "-E", "-P", "-I" + ROOT, source],
                              capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError((done.stderr.strip().split("\n") or ["it failed"])[0])
    text, *found = done.stdout.split('"netio-row ')
    values = {}
    for row in found:
        name, _, numbers = row.partition('"')
        values[name] = ["".join(n.split()) for n in numbers.split("#")[1:-1]]
    return text, values


def answers(system, rows):
    """({name: cell}, None), or (None, why it cannot be said)."""
    command, why = compiler(system)
    if not command:
        return None, why
    try:
        text, values = preprocess(command, rows)
    except OSError as e:
        return None, "%s: %s" % (" ".join(command), e)
    nothing = values[""][0]
    cells = {}
    for name, (_, flags, numbers) in rows.items():
        has = [value != nothing for value in values[name]]
        if numbers[0] == "0":  # it has no number, a function of the OS seam reads it
            body = re.search(r"\bnetio__os_%s\([^)]*\)\s*\{([^}]*)\}" % name.lower(), text)
            if not body:
                return None, "netio.h has no netio__os_" + name.lower()
            has[0] = "return NETIO_ENOTSUP;" not in " ".join(body.group(1).split())
        if "BY_FAMILY" in flags and has[0] != has[1]:
            cells[name] = "IPv4" if has[0] else "IPv6"
        else:
            cells[name] = SINCE.get(system, {}).get(name, "yes") if has[0] else "-"
    return cells, None


# --- the table -----------------------------------------------------------------------------------

def table(skipped):
    """Lists of cells, header first. A column that cannot be made is None, and its reason noted."""
    with open(os.path.join(ROOT, "netio.h")) as f:
        header = f.read()
    known = rows(header)
    named = meanings(header)
    if sorted(known) != sorted(name for name, _ in named):
        fail("enum netio_option and netio__options differ: %s" %
             ", ".join(sorted(set(known) ^ {name for name, _ in named})))
    columns = []
    for system in COLUMNS:
        cells, why = answers(system, known)
        if cells is None:
            skipped.append("%s: %s" % (system, why))
        columns.append(cells)
    lines = [["option", "for", "value"] + COLUMNS]
    for name, comment in named:
        flags = known[name][1]
        value = comment.replace("|", "\\|").replace("<", "&lt;")
        if "READ_ONLY" in flags:
            value = "read only: " + value
        lines.append([name, sockets(flags), value] + [c and c[name] for c in columns])
    return lines


def markdown(lines):
    dashes = [["---"] * len(lines[0])]
    return "".join("| %s |\n" % " | ".join(line) for line in lines[:1] + dashes + lines[1:])


def split_readme():
    with open(README) as f:
        text = f.read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        fail("README.md has no single %s ... %s" % (BEGIN, END))
    before, rest = text.split(BEGIN + "\n")
    old, after = rest.split(END)
    return before, old, after


def check(lines):
    old = split_readme()[1]
    have = [[cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")]
            for line in old.strip().split("\n")]
    have = [[cell.replace("\0", "\\|") for cell in line] for line in have[:1] + have[2:]]
    wrong = 0
    for i in range(max(len(lines), len(have))):
        want = lines[i] if i < len(lines) else []
        got = have[i] if i < len(have) else []
        # None: could not be asked, so whatever README.md says stays.
        if len(want) == len(got) and all(w in (None, g) for w, g in zip(want, got)):
            continue
        wrong += 1
        print("README.md says  %s\nnetio.h says    %s" %
              (" | ".join(got) or "nothing", " | ".join(w or "?" for w in want) or "nothing"))
    if wrong:
        print("to repair it: python3 tests/tools/option_table.py --write")
    return wrong


def main():
    skipped = []
    lines = table(skipped)
    if sys.argv[1:] == ["--check"]:
        for reason in skipped:
            print("skipped: the option table's column for " + reason)
        return 1 if check(lines) else 0
    if skipped:
        fail("no column for " + "; ".join(skipped))
    if sys.argv[1:] == ["--write"]:
        before, _, after = split_readme()
        with open(README, "w") as f:
            f.write(before + BEGIN + "\n\n" + markdown(lines) + "\n" + END + after)
    elif sys.argv[1:]:
        fail("what does %s mean?" % " ".join(sys.argv[1:]))
    else:
        print(markdown(lines), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
