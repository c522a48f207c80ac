"""Running a program that a model wrote: apart, for a short while, with nothing in reach.

A separate process runs it (:mod:`demur.anchors.jail`), in an empty environment, with limits on
time, memory and output, and with a filter on system calls: no files, no network, no processes. On a
system where that filter cannot be set nothing is run at all.
"""

from __future__ import annotations

import contextlib
import doctest
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from demur.errors import ConfigError

JAIL = Path(__file__).with_name("jail.py")
OUTPUT = 64_000  # bytes read of what a program prints
LONGEST = 20_000  # characters of a program
SLACK = 3  # seconds to start and to load the modules that a program may import


def run(
    program: str, examples: Sequence[str], seconds: int = 2, megabytes: int = 256
) -> list[str | None]:
    """What each example's expression comes to after the program, as ``repr`` writes it.

    ``None`` from the first one on that raised, ran out of time or memory, or tried what is
    forbidden; everywhere on a system that has no such filter (see ``check``).
    """
    nothing: list[str | None] = [None] * len(examples)
    if len(program) > LONGEST or "\0" in program:
        return nothing
    asked = {
        "program": program,
        "examples": list(examples),
        "seconds": seconds,
        "megabytes": megabytes,
        "output": OUTPUT,
    }
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(JAIL)],
            stdin=subprocess.PIPE,
            stdout=printed,  # a file, whose size the jail limits
            stderr=subprocess.DEVNULL,
            cwd=empty,
            env={},
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(asked).encode(), timeout=seconds + SLACK)
        except subprocess.TimeoutExpired:
            return nothing
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed.seek(0)
        text = printed.read(OUTPUT).decode("utf-8", "replace")
    said = _last(text).get("found")
    if not isinstance(said, list):
        return nothing
    values = [v if isinstance(v, str) else None for v in said[: len(examples)]]
    return [*values, *nothing[len(values) :]]


def check() -> None:
    """Raise ``ConfigError`` on a system where programs cannot be run safely."""
    if run("", ["6 * 7"]) != ["42"]:
        raise ConfigError(
            "programs cannot be run safely here: that takes Linux on x86_64 or aarch64 with "
            "seccomp; use another anchor"
        )


def _last(text: str) -> dict[str, object]:
    """The JSON object on the last line that holds one."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    return {}


def examples_of(question: str) -> list[tuple[str, str]]:
    r"""The examples that a question shows as in a Python session: expression and value.

    >>> examples_of("Write f.\n>>> f(2)\n4\n>>> f('a')\n'aa'\n")
    [('f(2)', '4'), ("f('a')", "'aa'")]
    """
    try:
        found = doctest.DocTestParser().get_examples(question)
    except ValueError:  # an inconsistent indentation
        return []
    return [(e.source.strip(), e.want.strip()) for e in found if e.want.strip()]


def passes(program: str, question: str) -> bool | None:
    """Whether a program does what the examples of its question show; ``None`` if there are none.

    It is handed the expressions and not what they come to, but the question shows both: a program
    that has the examples by heart passes as well.
    """
    shown = examples_of(question)
    if not shown:
        return None
    found = run(program, [source for source, _ in shown])
    return all(value == want for value, (_, want) in zip(found, shown, strict=True))
