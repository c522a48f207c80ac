"""The inside of the sandbox: run by itself, as ``python -I -S jail.py``, never imported.

It reads a program and its examples from stdin, gives up everything it could do harm with, runs
them, and prints what each example came to. What it gives up, in this order: files that are open,
time, memory and size of files (rlimits), new privileges, and all system calls but those that
computing and printing need (seccomp, an allow list; all others fail with EPERM). So there is no
opening of files, no socket, no process and no signal to anybody. If the filter cannot be set, it
stops before it runs anything.
"""

import ctypes
import importlib
import json
import os
import platform
import resource
import sys

# What programs may import: it is loaded before files can no longer be opened.
MODULES = (
    *("bisect", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "enum"),
    *("fractions", "functools", "heapq", "itertools", "math", "numbers", "operator", "random"),
    *("re", "statistics", "string", "textwrap", "typing", "unicodedata"),
)
CALLS = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10,
        "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
        "sched_yield": 24, "mremap": 25, "madvise": 28, "getpid": 39, "exit": 60,
        "gettimeofday": 96, "sigaltstack": 131, "gettid": 186, "futex": 202, "clock_gettime": 228,
        "clock_getres": 229, "exit_group": 231, "getrandom": 318,
    },
    "aarch64": {
        "close": 57, "lseek": 62, "read": 63, "write": 64, "fstat": 80, "exit": 93,
        "exit_group": 94, "futex": 98, "clock_gettime": 113, "clock_getres": 114,
        "sched_yield": 124, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
        "rt_sigreturn": 139, "gettimeofday": 169, "getpid": 172, "gettid": 178, "brk": 214,
        "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233,
        "getrandom": 278,
    },
}  # fmt: skip
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
SECCOMP, FILTER, NO_NEW_PRIVS = 22, 2, 38  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_...
ALLOW, FORBID, KILL = 0x7FFF0000, 0x00050001, 0x80000000  # SECCOMP_RET_*; FORBID is EPERM
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K


class Instruction(ctypes.Structure):
    """One step of a BPF program (struct sock_filter)."""

    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte),
                ("value", ctypes.c_uint)]  # fmt: skip


class Program(ctypes.Structure):
    """A BPF program (struct sock_fprog)."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction))]


def lock(seconds: int, megabytes: int, output: int) -> None:
    """Give up what a program must not have; raises ``OSError`` where that cannot be done."""
    for kind, limit in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, megabytes << 20),
        (resource.RLIMIT_FSIZE, output),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    machine = platform.machine()
    if sys.platform != "linux" or machine not in CALLS:
        raise OSError(f"there is no filter for {sys.platform} on {machine}")
    numbers = sorted(CALLS[machine].values())
    code = [
        (LOAD, 0, 0, 4),  # the architecture: another one has other numbers
        (EQUAL, 1, 0, ARCHITECTURE[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # the number of the call; those of x32 are larger than any here
        *((EQUAL, len(numbers) - i, 0, n) for i, n in enumerate(numbers)),
        (RETURN, 0, 0, FORBID),
        (RETURN, 0, 0, ALLOW),
    ]
    rows = (Instruction * len(code))(*(Instruction(*row) for row in code))
    program = Program(len(code), rows)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        SECCOMP, FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the filter cannot be set")


def main() -> None:
    """Run what stdin says."""
    asked = json.load(sys.stdin)
    for name in MODULES:
        importlib.import_module(name)
    try:
        lock(asked["seconds"], asked["megabytes"], asked["output"])
    except (OSError, ValueError) as error:
        print(json.dumps({"refused": str(error)}))
        return
    names: dict[str, object] = {"__name__": "__main__"}
    found: list[str | None] = []
    try:
        exec(compile(asked["program"], "program", "exec"), names)
        for example in asked["examples"]:
            found.append(repr(eval(compile(example, "example", "eval"), names)))
    except BaseException as error:  # a program may raise what it likes, SystemExit too
        found.append(None)
        sys.stderr.write(f"{type(error).__name__}\n")
    sys.stdout.write("\n" + json.dumps({"found": found}) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
