"""Credit: from rewards to an advantage per token.

The usual baseline is the mean reward of the group (one prompt's replies), per span: the tokens of
the answer are paid by the components of the answer, those of the confidence by the components of
the confidence, and ``all`` components reach every token. With one ``all`` component this is GRPO's
group-mean advantage (Dr. GRPO where it is not divided by the standard deviation).

Where a seat's moves answer no common question, as a proposer's, its baseline is a running mean of
that seat's own rewards (role-conditioned advantage estimation, RAE).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from demur.schema import FloatArray, Reward, Span

Baseline = Literal["mean", "mean_std", "rae"]
STD_FLOOR = 1e-6
RAE_DECAY = 0.95
EQUAL = 1e-12  # rewards that differ by no more are the same reward


def group_advantages(
    rewards: Sequence[Reward | None], baseline: Baseline = "mean"
) -> dict[Span, FloatArray]:
    """Advantage of each reply of one group by span; NaN where no component of that span was given.

    ``mean``: r - mean(r), RLCR and Dr. GRPO. ``mean_std``: that over (std(r) + 1e-6), GRPO as TTRL
    runs it. A reply whose anchor abstained (``None``, or no component) takes no part in the mean.

    >>> from demur.schema import Component, Reward
    >>> pay = lambda v: Reward({"correctness": Component(v, "answer")}, {"correctness": 1.0})
    >>> group_advantages([pay(1.0), pay(0.0), pay(0.0), None])["answer"].round(3).tolist()
    [0.667, -0.333, -0.333, nan]
    """
    sums = [{} if r is None else r.by_span() for r in rewards]
    spans: set[Span] = {span for by_span in sums for span in by_span}
    advantages: dict[Span, FloatArray] = {}
    for span in sorted(spans):
        values = np.array([by_span.get(span, np.nan) for by_span in sums], dtype=np.float64)
        given = values[~np.isnan(values)]
        if given.max() - given.min() <= EQUAL:
            values = values * 0.0  # the mean of equal numbers is off by rounding: no advantage
            given = given * 0.0
        centred = values - given.mean()
        if baseline == "mean_std":
            centred = centred / (np.nanstd(values) + STD_FLOOR)
        advantages[span] = centred
    return advantages


class RunningMeans:
    """A running mean of each seat's rewards, by span: the baseline of ``rae``.

        b <- decay b + (1 - decay) mean(r),     A = r - b      (b before this step)

    Started at the first step's mean, so that it does not have to climb from 0.
    """

    def __init__(self, decay: float = RAE_DECAY) -> None:
        self.decay = decay
        self.means: dict[str, dict[Span, float]] = {}

    def advantages(
        self, seat: str, groups: Sequence[Sequence[Reward | None]]
    ) -> list[dict[Span, FloatArray]]:
        """Advantages of each group of a seat, as ``group_advantages`` gives them; moves the mean.

        >>> from demur.schema import Component, Reward
        >>> pay = lambda v: Reward({"learnability": Component(v)}, {"learnability": 1.0})
        >>> means = RunningMeans(decay=0.5)
        >>> means.advantages("proposer", [[pay(1.0), pay(0.0)]])[0]["all"].tolist()
        [0.5, -0.5]
        >>> means.advantages("proposer", [[pay(1.0)]])[0]["all"].tolist(), means.means
        ([0.5], {'proposer': {'all': 0.75}})
        """
        paid = [[{} if r is None else r.by_span() for r in group] for group in groups]
        held = self.means.setdefault(seat, {})
        spans: set[Span] = {span for group in paid for by_span in group for span in by_span}
        out: list[dict[Span, FloatArray]] = [{} for _ in groups]
        for span in sorted(spans):
            values = [np.array([b.get(span, np.nan) for b in group]) for group in paid]
            now = float(np.nanmean(np.concatenate(values)))
            base = held.get(span, now)
            held[span] = self.decay * base + (1 - self.decay) * now
            for found, row in zip(out, values, strict=True):
                if np.isfinite(row).any():
                    found[span] = row - base
        return out


def token_advantages(spans: Sequence[Span], by_span: dict[Span, float]) -> tuple[float, ...]:
    """One advantage a token: its own span's plus that of ``all``; missing ones add nothing."""
    every = by_span.get("all", 0.0)
    each = {span: every + by_span.get(span, 0.0) for span in set(spans)} | {"all": every}
    return tuple([each[span] for span in spans])
