"""How a whole step grows with its size: the slope of log time over log size."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from demur.bench.beside import Found, row, timed
from demur.bench.cases import LOSS, SHAPES, Case, learner, prompts
from demur.bench.step import asked, own_step
from demur.policies.local import LocalPolicy
from demur.schema import Message, Sample, Sampling

GROUPS = (1, 2, 4, 8, 16, 32, 64)
PROMPTS = (25, 50, 100, 200, 400, 800)
TURNS = (1, 2, 3, 4, 5, 6)
SIZES = ("1M", "3M", "9M", "30M")
AXES = ("group", "prompt", "turns", "parameters")


def growth(size: str, axis: str, repeats: int, device: str) -> Found:
    """Seconds along an axis and their fitted exponent; 1 is linear, and less is better."""
    measured = {
        "group": lambda: _own(size, [Case(4, g, 200, 24) for g in GROUPS], repeats, device),
        "prompt": lambda: _own(size, [Case(4, 8, p, 24) for p in PROMPTS], repeats, device),
        "turns": lambda: _turns(size, repeats, device),
        "parameters": lambda: _sizes(repeats, device),
    }[axis]()
    xs = {"group": GROUPS, "prompt": PROMPTS, "turns": TURNS}.get(axis) or [
        sum(p.numel() for p in learner(SHAPES[s], True, device).model.parameters()) for s in SIZES
    ]
    exponent = fit(xs, measured)
    found = row("linear", exponent, 1.0, 1.0 / exponent, "exponent")
    return found | {"points": [[float(x), y] for x, y in zip(xs, measured, strict=True)]}


def fit(xs: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log x, by least squares.

    >>> round(fit([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    slope, _ = np.polyfit(np.log(xs), np.log(seconds), 1)
    return float(slope)


def _own(size: str, cases: Sequence[Case], repeats: int, device: str) -> list[float]:
    """Seconds of a whole step of each case; the cases take turns."""
    shape = SHAPES[size]
    policy = learner(shape, True, device)
    texts = [asked(case, shape.vocabulary) for case in cases]
    return _in_turn(
        [partial(own_step, policy, c, t, 0) for c, t in zip(cases, texts, strict=True)],
        repeats,
    )


def _sizes(repeats: int, device: str) -> list[float]:
    case = Case(8, 16, 200, 24)
    policies = [learner(SHAPES[s], True, device) for s in SIZES]
    texts = asked(case, SHAPES[SIZES[0]].vocabulary)
    return _in_turn([partial(own_step, p, case, texts, 0) for p in policies], repeats)


def _turns(size: str, repeats: int, device: str) -> list[float]:
    policy = learner(SHAPES[size], True, device)
    return _in_turn([partial(converse, policy, n) for n in TURNS], repeats)


def converse(policy: LocalPolicy, turns: int) -> None:
    """Eight dialogues of some turns, then one update on every reply of every turn.

    A turn is a question of 24 words and a reply as long.
    """
    case = Case(8, 1, 24, 24)
    vocabulary = policy.model.config.vocab_size
    questions = prompts(Case(case.prompts * turns, 1, 24, 0), vocabulary)
    dialogues: list[tuple[Message, ...]] = [()] * case.prompts
    samples = []
    for turn in range(turns):
        said = questions[turn * case.prompts : (turn + 1) * case.prompts]
        dialogues = [
            (*d, Message("user", " ".join(f"w{i}" for i in words) + " "))
            for d, words in zip(dialogues, said, strict=True)
        ]
        replies = [row[0] for row in policy.reply(dialogues, 1, Sampling(1.0, 24, turn))]
        for i, c in enumerate(replies):
            credit = (1.0 if i % 2 else -1.0,) * len(c.token_ids)
            samples.append(Sample(c.prompt_ids, c.token_ids, c.logprobs, credit, i))
        dialogues = [
            (*d, Message("assistant", c.text + " "))
            for d, c in zip(dialogues, replies, strict=True)
        ]
    policy.update(samples, LOSS)


def _in_turn(work: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, all taken in turn after a warm-up."""
    times: list[list[float]] = [[] for _ in work]
    for turn in range(repeats + 1):
        for side, each in zip(times, work, strict=True):
            seconds = timed(each)
            if turn:
                side.append(seconds)
    return [statistics.median(t) for t in times]
