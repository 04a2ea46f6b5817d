#!/usr/bin/env python3
"""Run a program where IPv6 is not in the kernel: socket(AF_INET6) fails with EAFNOSUPPORT.

  no_ipv6.py COMMAND...

By a seccomp filter, since a kernel that has IPv6 cannot leave it out for one namespace. Ends with
77 where that cannot be done.
"""
import ctypes
import errno
import os
import platform
import socket
import struct
import sys

# The number of socket(2), and the architecture as the kernel names it. i686 and s390x go through
# socketcall(2) too, whose arguments a filter cannot see.
SOCKET = {"x86_64": (41, 0xc000003e), "aarch64": (198, 0xc00000b7), "riscv64": (198, 0xc00000f3)}
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
LOAD, JEQ, RET = 0x20, 0x15, 0x06  # BPF: absolute word, compare, return
ALLOW, ERRNO = 0x7fff0000, 0x00050000


def main():
    if platform.machine() not in SOCKET:
        sys.exit(77)
    number, arch = SOCKET[platform.machine()]
    # struct seccomp_data: nr, arch, instruction pointer, six arguments of 64 bits.
    program = [(LOAD, 0, 0, 4), (JEQ, 0, 5, arch), (LOAD, 0, 0, 0), (JEQ, 0, 3, number),
               (LOAD, 0, 0, 16), (JEQ, 0, 1, socket.AF_INET6),
               (RET, 0, 0, ERRNO | errno.EAFNOSUPPORT), (RET, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *op) for op in program))
    header = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None).prctl
    if prctl(NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or prctl(SET_SECCOMP, FILTER, header, 0, 0) != 0:
        sys.exit(77)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
