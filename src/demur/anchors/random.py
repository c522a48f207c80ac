"""A coin: the control that any gain from a reward must beat (Spurious Rewards, 2506.10947)."""

from __future__ import annotations

from typing import cast

import numpy as np

from demur.anchors.base import FreeAnchor, answers_of
from demur.schema import Group, Verdict


class Random(FreeAnchor):
    """1.0 or 0.0 with equal probability, whatever the answer; 0.0 if it could not be read.

    A coin is tossed for every episode, read or not, so the stream of tosses depends on the number
    of episodes alone.
    """

    name = "random"

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def judge(self, group: Group) -> list[Verdict]:
        """Toss a coin for each episode."""
        coins = self._rng.random(len(group.episodes)) < 0.5
        return [
            0.0 if answer is None else float(coin)
            for answer, coin in zip(answers_of(group), coins, strict=True)
        ]

    def state(self) -> dict[str, object]:
        """The generator's state."""
        return {"rng": dict(self._rng.bit_generator.state)}

    def restore(self, state: dict[str, object]) -> None:
        """Take up the generator's state."""
        self._rng.bit_generator.state = cast("dict[str, object]", state["rng"])
