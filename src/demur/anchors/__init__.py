"""Who says what is right: the grid's axis on which dissent stands or falls.

To add an anchor, write one file with a class that meets the ``Anchor`` protocol and name it in
``ANCHORS``; the contract tests then run over it. A constructor's parameters are its options, apart
from those named in ``SUPPLIED``, which the run gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from demur import registry
from demur.anchors.approval import Approval
from demur.anchors.base import Anchor, answers_of
from demur.anchors.bayes import Bayes
from demur.anchors.buyer import Buyer
from demur.anchors.corrections import Corrections
from demur.anchors.judge import Judge
from demur.anchors.majority import Majority
from demur.anchors.own_confidence import OwnConfidence
from demur.anchors.past_version import PastVersion
from demur.anchors.private_majority import PrivateMajority
from demur.anchors.random import Random
from demur.anchors.rounds import judge_round
from demur.anchors.tool import Tool
from demur.anchors.truth import Truth
from demur.errors import ConfigError

__all__ = [
    "ANCHORS",
    "SUPPLIED",
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
    "past_version": PastVersion,
    "judge": Judge,
    "corrections": Corrections,
    "tool": Tool,
    "bayes": Bayes,
    "buyer": Buyer,
}
"""Every anchor's constructor by name."""

SUPPLIED: dict[str, str] = {
    "rng": "an explicit generator",
    "private": "a task's modal claim-free answer and its share",
    "own": "how sure the policy was of an answer's tokens",
    "weigh": "the Bayes posterior of a private vote and a claim",
    "past": "what an earlier version of the policy answers alone",
    "load": "another policy by its name",
    "alone": "what a policy answers alone",
    "lookup": "a table of known answers",
    "perturb": "a slip in a task's answer",
    "sold": "the form of what was said of an offer, and what is true of it",
}
"""What a run supplies to the anchors that take it; every other parameter is an option."""


def anchor_options(name: str) -> list[str]:
    """The options that a recipe may set for an anchor; raises ``UnknownName``."""
    known = registry.parameters("anchor", ANCHORS, name)
    return [option for option in known if option not in SUPPLIED]


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Raise ``UnknownName`` if the anchor, or one of its options, doesn't exist."""
    registry.check_options("anchor", ANCHORS, name, options, SUPPLIED)


def make_anchor(
    name: str, options: Mapping[str, object] | None = None, **supplied: object
) -> Anchor:
    """Make an anchor from its options and from what the run supplies (``SUPPLIED``).

    Raises ``ConfigError`` if the anchor needs something that is not supplied.
    """
    check_options(name, options or {})
    for needed in registry.parameters("anchor", ANCHORS, name):
        if needed in SUPPLIED and supplied.get(needed) is None:
            raise ConfigError(
                f"the anchor {name!r} needs {needed} ({SUPPLIED[needed]}), which was not given"
            )
    made: Anchor = registry.make("anchor", ANCHORS, name, options or {}, supplied)
    return made
