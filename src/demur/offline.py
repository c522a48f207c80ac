"""The stage that plays once and then learns from what was kept.

    source.draw -> game(policy) -> Episodes -> anchor.judge -> Kept -> offline.parquet -> Samples

The rows are written before the first step, and a resumed run reads them back.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np

from demur.anchors import judge_round
from demur.errors import TrainingError
from demur.games import make_game
from demur.learners.confidence import span_confidence
from demur.learners.offline import (
    Kept,
    as_rows,
    as_units,
    from_rows,
    keep_pairs,
    keep_right,
    keep_surest,
)
from demur.learners.policy_gradient import Supervised
from demur.learners.preference import Preference
from demur.recipe import Offline
from demur.runlog import RunFolder
from demur.schema import Episode, Stats, Trainable
from demur.stages import Progress, Take, sampling_for
from demur.supplies import anchor_for
from demur.tasks.source import Source

FEW = 20
"""Rows below which a stage says that there is next to nothing to learn from."""


def offline(
    stage: Offline,
    policy: Trainable,
    source: Source,
    at: Progress,
    rng: np.random.Generator,
    run: RunFolder,
) -> Take:
    """Play with the policy as the stage finds it; then steps on what was kept.

    Raises ``TrainingError`` where nothing was.
    """
    name = f"offline-{at.stage}.parquet"
    if at.step:
        rows, before = run.read_table(name), at.budget
    else:
        kept, calls = play_once(stage, policy, source, rng)
        _look_at(stage, len(kept))
        rows, before = as_rows(kept, as_units(kept, policy.pieces)), at.budget + calls
        run.table(name, rows)
    units = from_rows(rows)
    pairs = stage.keep != "right"
    loss = Preference(beta=stage.beta, weight=stage.margin) if pairs else Supervised()
    if pairs and not at.step:
        policy.keep_reference()
    sides = Counter(row["side"] for row in rows)
    counts = {f"rows/{side}": float(sides[side]) for side in ("resist", "accept", "alone")}

    def take(step: int, rng: np.random.Generator) -> Stats:
        chosen = rng.choice(len(units), size=min(stage.batch, len(units)), replace=False)
        samples = [sample for i in chosen for sample in units[int(i)]]
        at.budget = before
        stats = policy.update(samples, loss)
        return stats | counts | {"rows": float(len(units)), "anchor_budget": before}

    return take


def _look_at(stage: Offline, kept: int) -> None:
    if not kept:
        raise TrainingError(
            f"of {stage.dialogues} dialogues none gave a row to keep ({_why(stage)}); play more "
            "dialogues or larger groups, or lower the threshold"
        )
    if kept < FEW:
        warnings.warn(
            f"only {kept} rows were kept of {stage.dialogues} dialogues ({_why(stage)})",
            RuntimeWarning,
            stacklevel=3,
        )


def _why(stage: Offline) -> str:
    return {
        "right": "no reply was judged right",
        "pairs": f"no group held a right and a wrong reply, with balance = {stage.balance!r}",
        "surest": "no two different answers were found of which one was sure enough",
    }[stage.keep]


def play_once(
    stage: Offline, policy: Trainable, source: Source, rng: np.random.Generator
) -> tuple[list[Kept], int]:
    """What is kept of one pass of play, and the labels or calls that it took."""
    draws = source.draw(stage.dialogues, rng, alone=stage.alone_share)
    sampling = sampling_for(stage, rng)
    game = make_game(stage.game)
    if stage.keep == "surest":
        branches = replace(sampling, temperature=0.0, opening=stage.opening, branch=True, gaps=True)
        sure = partial(_sure, policy=policy, kind=stage.confidence)
        groups = game(policy, draws, stage.group, branches)
        kept = keep_surest(groups, sure, stage.threshold)
        return kept, 0
    anchor = anchor_for(stage, policy, source, rng)
    groups = game(policy, draws, stage.group, sampling)
    verdicts = judge_round(anchor, groups)
    if stage.keep == "right":
        return keep_right(groups, verdicts, rng), anchor.budget
    return keep_pairs(groups, verdicts, rng, stage.balance), anchor.budget


def _sure(episode: Episode, policy: Trainable, kind: str) -> float | None:
    turn = episode.turns[-1]
    return span_confidence(turn.completion, turn.reply, policy.pieces, kind)
