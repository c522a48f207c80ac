"""What the stages of a run share: where it stands, and the stage that needs no play.

``distil`` learns what private deliberation concludes; ``train`` holds the loop and the stage that
plays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from demur.evaluate import calibrate_shares
from demur.learners import policy_gradient
from demur.learners.distil import demonstrations
from demur.measure.shares import ShareTable
from demur.policies.local import LocalPolicy
from demur.recipe import Distil
from demur.schema import Stats
from demur.tasks.source import Source

Take = Callable[[int, np.random.Generator], Stats]


@dataclass
class Progress:
    """Where a run stands: its stage and next step, and what its anchors have used up so far."""

    stage: int = 0
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    budget: int = 0
    anchor: dict[str, Any] = field(default_factory=dict)


def label_shares(source: Source, labels: int, rng: np.random.Generator) -> ShareTable:
    """Look up the truth of ``labels`` tasks of the pool and calibrate private shares on them."""
    known = [p for p in source.private.values() if p.task.truth is not None]
    chosen = rng.permutation(len(known))[:labels]
    return calibrate_shares([known[int(i)] for i in chosen])


def distil(
    stage: Distil, policy: LocalPolicy, source: Source, at: Progress, rng: np.random.Generator
) -> Take:
    """Supervised steps on what private deliberation concludes; the only anchor is ``labels``."""
    shares = label_shares(source, stage.labels, rng)
    before = at.budget if at.step else at.budget + min(stage.labels, len(source.private))

    def take(step: int, rng: np.random.Generator) -> Stats:
        draws = source.draw(stage.batch, rng, alone=stage.alone_share)
        samples = demonstrations(
            draws,
            source.private,
            shares,
            policy,
            rng,
            score_weight=stage.expected_score,
            thought_from=stage.thought_from,
        )
        at.budget = before
        return policy.update(samples, policy_gradient.Supervised()) | {"anchor_budget": at.budget}

    return take
