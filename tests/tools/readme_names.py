#!/usr/bin/env python3
"""What README.md names is there: files, tests, names of the headers, and an example for each choice.

    readme_names.py        says what is wrong; exit code 1 if anything is
"""
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
wrong = []


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def check(condition, text):
    if not condition:
        wrong.append(text)


def exists(path):
    return os.path.exists(os.path.join(ROOT, path))


def section(readme, title):
    """The lines between a heading and the next one."""
    _, found, rest = readme.partition("\n## %s\n" % title)
    check(found, "no section %r" % title)
    return rest.partition("\n## ")[0].split("\n")


def rows(lines):
    """The cells of a table's rows, without its head."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in lines if line.startswith("|")]
    return cells[2:]


def tests():
    """SECTION.NAME of every TEST(SECTION, NAME)."""
    found = set()
    for path in glob.glob(os.path.join(ROOT, "tests", "test_*.c")):
        found.update("%s.%s" % name for name in re.findall(r"^TEST\((\w+), (\w+)\)",
                                                           read(path), re.M))
    return found


def links_and_paths(readme):
    for target in re.findall(r"\]\(([^)\s]+)\)", readme):
        if target.startswith("#"):
            titles = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
                      for title in re.findall(r"^#+ (.*)$", readme, re.M)}
            check(target[1:] in titles, "a link to %s, which is no heading" % target)
        elif "://" not in target:
            check(exists(target), "a link to %s, which does not exist" % target)
    for path in re.findall(r"\b(?:examples|tests|bench)/[\w./-]*\w", readme):
        check(exists(path), "%s does not exist" % path)


def names(readme):
    header = read("netio.h") + read("netio_tls.h")
    known = set(re.findall(r"\bnetio_\w+|\bNETIO_\w+", header))
    for name in sorted(set(re.findall(r"\bnetio_\w+|\bNETIO_\w+", readme))):
        if name.endswith("_E"):  # NETIO_E*: all of them
            continue
        check(name in known, "no header has %s" % name)


def security(readme):
    known = tests()
    table = rows(section(readme, "Security"))
    check(len(table) >= 4, "the security guide has only %d threats" % len(table))
    for row in table:
        threat = re.sub(r"[*`]", "", row[0]).partition(":")[0]
        named = re.findall(r"`([^`]+)`", row[-1])
        check(named, "no test is named for the threat %r" % threat)
        for test in named:
            there = exists(test) if "/" in test else test in known
            check(there, "the threat %r names the test %s, which does not exist" % (threat, test))
    for threat in "Spoofing", "floods", "Interception", "Overflow":
        check(any(threat in row[0] for row in table), "the security guide lacks %r" % threat)


def named_tests(readme):
    """Whatever looks like SECTION.NAME of a section that has tests."""
    known = tests()
    sections = {test.partition(".")[0] for test in known}
    for name in re.findall(r"`(\w+\.\w+)`", readme):
        if name.partition(".")[0] in sections:
            check(name in known, "there is no test %s" % name)


def decisions(readme):
    table = rows(section(readme, "TCP, UDP, multicast or Unix"))
    check(len(table) >= 4, "only %d choices of a transport" % len(table))
    for row in table:
        named = re.findall(r"\]\((examples/[^)]+)\)", row[-1])
        check(named, "no example for the choice %r" % row[1])
        for example in named:
            check(exists(example), "the choice %r names %s, which does not exist" %
                  (row[1], example))


def examples(readme):
    for pattern in "examples/*.c", "examples/apps/*.c", "examples/common/*.h":
        for path in sorted(glob.glob(os.path.join(ROOT, pattern))):
            name = os.path.relpath(path, ROOT).replace(os.sep, "/")
            check("](%s)" % name in readme, "the example %s is not mentioned" % name)


def main():
    readme = read("README.md")
    for part in links_and_paths, names, security, named_tests, decisions, examples:
        part(readme)
    for text in wrong:
        print("README.md: " + text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
