"""Self-play as data: play once, keep what an anchor says of it, learn from the rows afterwards.

Three ways to keep:

- ``right``: one reply a dialogue that was judged right, whoever said what before it. Labels that
  ignore the speaker teach that the speaker does not decide (Wei et al. 2023, arXiv 2308.03958).
- ``pairs``: in one dialogue a reply judged right is preferred to one judged wrong. Balanced, there
  are as many pairs in which being right means to resist as such in which it means to accept (PBT,
  arXiv 2410.14596); unbalanced, they teach one of the two at the cost of the other.
- ``surest``: a reply is preferred to one of which the policy was less sure, if it was sure enough
  (RLSF, arXiv 2507.21931: conf_1 > conf_2 and conf_1 >= threshold).

A verdict of at least a half counts as right. Rows are plain data, written as Parquet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from demur.anchors import answers_of
from demur.games.rounds import draw_json
from demur.learners.samples import Pieces, token_spans
from demur.runlog import dialogue_json
from demur.schema import Episode, Group, Reply, Row, Sample, Verdict
from demur.tasks.grader import classes

Balance = Literal["both", "resist", "accept", "none"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One reply that is learned from: alone (``rejected`` is None) or before another."""

    chosen: Episode
    rejected: Episode | None
    verdict: float
    margin: float = 0.0

    @property
    def side(self) -> str:
        """What being right meant: to resist a wrong claim, to accept a right one, or neither."""
        claim = self.chosen.claim
        if claim is None or claim.right is None:
            return "alone"
        return "accept" if claim.right else "resist"


def _read(group: Group, judged: Sequence[Verdict]) -> list[tuple[Episode, float]]:
    rows = zip(group.episodes, judged, strict=True)
    return [
        (e, v)
        for e, v in rows
        if v is not None and isinstance(e.reply, Reply) and e.turns[-1].completion.token_ids
    ]


def keep_right(
    groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]], rng: np.random.Generator
) -> list[Kept]:
    """One reply a dialogue that was judged right; dialogues without one are left out."""
    kept = []
    for group, judged in zip(groups, verdicts, strict=True):
        right = [(e, v) for e, v in _read(group, judged) if v >= 0.5]
        if right:
            episode, verdict = right[int(rng.integers(len(right)))]
            kept.append(Kept(episode, None, verdict))
    return kept


def keep_pairs(
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    rng: np.random.Generator,
    balance: Balance = "both",
) -> list[Kept]:
    """One pair a dialogue: a reply judged right before one judged wrong.

    ``both`` keeps as many that resist as that accept, and no others; ``resist`` and ``accept`` keep
    that side alone; ``none`` keeps all, those without a claim too.
    """
    found: list[Kept] = []
    for group, judged in zip(groups, verdicts, strict=True):
        read = _read(group, judged)
        right = [(e, v) for e, v in read if v >= 0.5]
        wrong = [e for e, v in read if v < 0.5]
        if right and wrong:
            better, verdict = right[int(rng.integers(len(right)))]
            worse = wrong[int(rng.integers(len(wrong)))]
            found.append(Kept(better, worse, verdict))
    if balance == "none":
        return found
    sides = {s: [k for k in found if k.side == s] for s in ("resist", "accept")}
    if balance != "both":
        return sides[balance]
    fewest = min(len(side) for side in sides.values())
    return [side[int(i)] for side in sides.values() for i in rng.permutation(len(side))[:fewest]]


def keep_surest(
    groups: Sequence[Group],
    sure: Callable[[Episode], float | None],
    threshold: float = 0.9,
    margin: bool = True,
) -> list[Kept]:
    """All ordered pairs of different answers in a group with conf_1 > conf_2, conf_1 >= threshold.

    With ``margin`` a pair carries exp(conf_1 - conf_2). Replies without an answer to look at take
    no part.
    """
    kept = []
    for group in groups:
        labels = classes(answers_of(group), group.task.grader)
        rows = zip(group.episodes, labels, strict=True)
        known = [(e, label, c) for e, label in rows if (c := sure(e)) is not None]
        for better, one, high in known:
            for worse, other, low in known:
                if low < high >= threshold and one != other:
                    kept.append(Kept(better, worse, high, math.exp(high - low) if margin else 0.0))
    return kept


Unit = tuple[Sample, ...]
"""What is learned together: a demonstration, or the two replies of a pair (advantages 1 and -1)."""


def as_units(kept: Sequence[Kept], pieces: Pieces, stated: bool = False) -> list[Unit]:
    """Samples of every row; a row is a group of its own.

    Of a demonstration the confidence is imitated only with ``stated``: a right answer does not make
    the confidence beside it right.
    """
    units: list[Unit] = []
    for number, row in enumerate(kept):
        better = row.chosen.turns[-1].completion
        if row.rejected is None:
            spans = token_spans(better, row.chosen.reply, pieces)
            weights = [float(stated or span != "confidence") for span in spans]
            units.append((_sample(better.prompt_ids, better.token_ids, weights, number, 0.0),))
        else:
            worse = row.rejected.turns[-1].completion
            units.append(
                _pair(better.prompt_ids, better.token_ids, worse.token_ids, number, row.margin)
            )
    return units


def _sample(
    prompt: Sequence[int], ids: Sequence[int], weights: Sequence[float], group: int, margin: float
) -> Sample:
    return Sample(tuple(prompt), tuple(ids), (), tuple(weights), group, margin=margin)


def _pair(
    prompt: Sequence[int], better: Sequence[int], worse: Sequence[int], group: int, margin: float
) -> Unit:
    signed = ((better, 1.0), (worse, -1.0))
    return tuple(_sample(prompt, ids, [sign] * len(ids), group, margin) for ids, sign in signed)


def as_rows(kept: Sequence[Kept], units: Sequence[Unit]) -> list[Row]:
    """The rows of the Parquet file: who said what, what was kept of the replies, and its tokens."""
    return [
        {
            "task_id": row.chosen.task.id,
            "question": row.chosen.task.question,
            "truth": row.chosen.task.truth,
            "grader": row.chosen.task.grader,
            "family": row.chosen.task.family,
            "claim": row.chosen.claim.answer if row.chosen.claim else None,
            "claim_right": row.chosen.claim.right if row.chosen.claim else None,
            "side": row.side,
            "exchange": draw_json(row.chosen.task, row.chosen.claim),
            "dialogue": dialogue_json(row.chosen.turns[-1].dialogue),
            "chosen": row.chosen.turns[-1].completion.text,
            "rejected": row.rejected.turns[-1].completion.text if row.rejected else None,
            "verdict": row.verdict,
            "margin": row.margin,
            "prompt_ids": list(unit[0].prompt_ids),
            "chosen_ids": list(unit[0].completion_ids),
            "chosen_weights": list(unit[0].advantages),
            "rejected_ids": list(unit[1].completion_ids) if len(unit) > 1 else None,
        }
        for row, unit in zip(kept, units, strict=True)
    ]


def from_rows(rows: Sequence[Row]) -> list[Unit]:
    """The units that ``as_rows`` wrote."""
    units: list[Unit] = []
    for number, row in enumerate(rows):
        prompt, better, margin = row["prompt_ids"], row["chosen_ids"], row["margin"]
        if row["rejected_ids"] is None:
            units.append((_sample(prompt, better, row["chosen_weights"], number, margin),))
        else:
            units.append(_pair(prompt, better, row["rejected_ids"], number, margin))
    return units
