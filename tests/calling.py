"""How a command of demur ended, and the one sentence of a mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def sentence(ran: Ran) -> str:
    """The one sentence of a mistake."""
    assert ran.code == 2, ran
    assert ran.err.startswith("demur: ") and ran.err.endswith("\n"), ran.err
    assert ran.err.count("\n") == 1 and "Traceback" not in ran.err, ran.err
    return ran.err.removeprefix("demur: ").rstrip("\n")
