"""Who says what is right: the grid's axis on which dissent stands or falls.

To add an anchor, write one file with a class that meets the ``Anchor`` protocol and name it in
``ANCHORS``; the contract tests then run over it. A constructor's parameters are its options, apart
from ``rng`` (an explicit generator), ``private`` (claim-free votes) and ``own`` (how sure the
policy was of an answer), which the run supplies.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import numpy as np

from demur.anchors.approval import Approval
from demur.anchors.base import Anchor, answers_of
from demur.anchors.majority import Majority
from demur.anchors.own_confidence import OwnConfidence
from demur.anchors.private_majority import PrivateMajority
from demur.anchors.random import Random
from demur.anchors.rounds import judge_round
from demur.anchors.truth import Truth
from demur.errors import ConfigError, UnknownName
from demur.schema import Completion, Said, Task

__all__ = [
    "ANCHORS",
    "Anchor",
    "anchor_options",
    "answers_of",
    "check_options",
    "judge_round",
    "make_anchor",
]

ANCHORS: dict[str, Callable[..., Anchor]] = {
    "truth": Truth,
    "majority": Majority,
    "private_majority": PrivateMajority,
    "approval": Approval,
    "random": Random,
    "own_confidence": OwnConfidence,
}
"""Every anchor's constructor by name."""

_SUPPLIED = frozenset({"rng", "private", "own"})


def anchor_options(name: str) -> list[str]:
    """The options that a recipe may set for an anchor; raises ``UnknownName``."""
    return [option for option in _parameters(name) if option not in _SUPPLIED]


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Raise ``UnknownName`` if the anchor, or one of its options, doesn't exist."""
    known = anchor_options(name)
    for option in options:
        if option not in known:
            raise UnknownName(f"option of anchor {name!r}", option, known)


def make_anchor(
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    rng: np.random.Generator | None = None,
    private: Callable[[Task], tuple[str | None, float]] | None = None,
    own: Callable[[Completion, Said, str], float | None] | None = None,
) -> Anchor:
    """Make an anchor from its name and options, with what the run supplies where it is needed.

    Raises ``ConfigError`` if the anchor needs a generator or claim-free votes that are not given.
    """
    check_options(name, options or {})
    arguments: dict[str, object] = dict(options or {})
    for supplied, value in (("rng", rng), ("private", private), ("own", own)):
        if supplied in _parameters(name):
            if value is None:
                raise ConfigError(f"the anchor {name!r} needs {supplied}, which was not given")
            arguments[supplied] = value
    return ANCHORS[name](**arguments)


def _parameters(name: str) -> list[str]:
    if name not in ANCHORS:
        raise UnknownName("anchor", name, ANCHORS)
    return list(inspect.signature(ANCHORS[name]).parameters)
