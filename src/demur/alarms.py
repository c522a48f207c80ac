"""What a run should not go on with silently: each is warned of once, and counted.

A run goes on, as one bad stretch may mend itself, unless its recipe's ``stop_on`` names the alarm.
The figures are in ``metrics.jsonl`` (``alarm/NAME``: steps in a row so far).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping

from demur.rewards import CALIBRATION_SCORES
from demur.schema import Stats

PATIENCE = 10
"""Steps in a row before anything is said."""
NARROW = 0.03
"""A spread of stated confidence below which it says the same of everything."""
BLIND = 0.52
"""An AUROC of stated confidence, over a step's replies, below which it tells nothing."""
ALIKE = 1.1
"""Distinct answers a prompt below which a group says one thing."""
CONFORMIST = 0.95
"""The share of wrong claims taken up above which a policy agrees with whatever it hears."""

SENTENCES = {
    "flat_rewards": "every reply of a step earned the same, for {n} steps, so nothing is learned; "
    "look at the reward and the anchor, or raise the temperature",
    "no_votes": "no reply of a step could be read, for {n} steps, so there is nothing to vote on; "
    "look at a reply in the run's metrics, and give more max_tokens",
    "no_verdicts": "the anchor abstained on every reply, for {n} steps, so nothing is paid; look "
    "at what it goes by: votes that name an answer, an answer to look at, a known truth",
    "no_proposals": "the proposer asked nothing that could be read, for {n} steps; look at "
    "game_options, and at whether this model follows the request",
    "confidence_collapse": "the stated confidence has become one value, for {n} steps: a good ECE "
    "then says nothing; look at AUROC, or pay the confidence on its own span",
    "confidence_blind": "the stated confidence has told right from wrong no better than a coin "
    "(AUROC below {blind}), for {n} steps, though it is paid; look at its spread, and at whether "
    "what is known shows in the replies",
    "diversity_collapse": "a group gives hardly more than one answer ({alike} on average), for {n} "
    "steps: a vote of its own then confirms whatever that is; look at label_accuracy, and give the "
    "reward an anchor outside",
    "conformity": "wrong claims are taken up more often than {conformist}, for {n} steps: the "
    "policy agrees with whatever it hears; look at the anchor",
    "no_gap": "replies weighed by the anchor's verdicts are no better than plain ones, for {n} "
    "steps (gap_high is not above 0): nothing that is learned from it can help",
}


class AlarmWarning(UserWarning):
    """A run that goes on, but not as it should."""


class Alarms:
    """Counts for how many steps in a row each condition has held; ``name`` is the run's."""

    def __init__(
        self, name: str = "", patience: int = PATIENCE, stop_on: Collection[str] = ()
    ) -> None:
        self.name, self.patience, self.stop_on = name, patience, stop_on
        self.counts: dict[str, int] = dict.fromkeys(SENTENCES, 0)

    def __call__(self, stats: Mapping[str, float]) -> Stats:
        """Look at one step's figures; returns the counts that are not 0."""

        def of(name: str) -> float:
            return stats.get(name, math.nan)

        paid = any(f"reward/{name}" in stats for name in CALIBRATION_SCORES)
        held = {
            "flat_rewards": of("flat_groups") == 1.0,
            "no_votes": of("coverage") == 0.0,
            "no_proposals": of("proposer/valid") == 0.0,
            "no_verdicts": "verdict" in stats and math.isnan(of("verdict")) and of("coverage") > 0,
            "confidence_collapse": of("confidence_std") < NARROW and paid,
            "confidence_blind": of("confidence_auroc") < BLIND and paid,
            "diversity_collapse": of("distinct_answers") < ALIKE,
            "conformity": of("adopts_wrong") > CONFORMIST,
            "no_gap": of("gap_high") <= 0.0,
        }
        for name, now in held.items():
            self.counts[name] = self.counts[name] + 1 if now else 0
            if self.counts[name] == self.patience:
                said = SENTENCES[name].format(
                    n=self.patience, blind=BLIND, alike=ALIKE, conformist=CONFORMIST
                )
                said = f"{self.name}: {said}" if self.name else said
                warnings.warn(said, AlarmWarning, stacklevel=2)
        return {f"alarm/{name}": float(n) for name, n in self.counts.items() if n}

    @property
    def stop(self) -> str:
        """The first alarm that has gone off and is to end the run; empty if there is none."""
        gone = (n for n in self.stop_on if self.counts[n] >= self.patience)
        return next(gone, "")
