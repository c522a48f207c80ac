"""Who says what is right: the grid's axis on which dissent stands or falls.

To add an anchor, write one file with a class that meets the ``Anchor`` protocol and name it in
``ANCHORS``; the contract tests then run over it. A constructor's parameters are its options, apart
from ``rng`` (an explicit generator), ``private`` (claim-free votes) and ``own`` (how sure the
policy was of an answer), which the run supplies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from demur import registry
from demur.anchors.approval import Approval
from demur.anchors.base import Anchor, answers_of
from demur.anchors.majority import Majority
from demur.anchors.own_confidence import OwnConfidence
from demur.anchors.private_majority import PrivateMajority
from demur.anchors.random import Random
from demur.anchors.rounds import judge_round
from demur.anchors.truth import Truth
from demur.errors import ConfigError
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
    known = registry.parameters("anchor", ANCHORS, name)
    return [option for option in known if option not in _SUPPLIED]


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Raise ``UnknownName`` if the anchor, or one of its options, doesn't exist."""
    registry.check_options("anchor", ANCHORS, name, options, _SUPPLIED)


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
    supplied = {"rng": rng, "private": private, "own": own}
    for needed in registry.parameters("anchor", ANCHORS, name):
        if needed in supplied and supplied[needed] is None:
            raise ConfigError(f"the anchor {name!r} needs {needed}, which was not given")
    made: Anchor = registry.make("anchor", ANCHORS, name, options or {}, supplied)
    return made
