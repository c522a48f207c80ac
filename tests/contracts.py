"""What every registered part must keep to, whoever wrote it.

A new part is tested by being registered: the contract tests call these over the registries.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Sequence

import numpy as np

from demur.anchors import ANCHORS, Anchor, make_anchor
from demur.rewards import CALIBRATION_SCORES, REWARDS, RewardPart, make_parts
from demur.schema import (
    Claim,
    Completion,
    Component,
    Episode,
    Group,
    Reply,
    Task,
    Turn,
    Unparsed,
)

GRID = [level / 10 for level in range(11)]


def make_group(
    answers: Sequence[str | None],
    truth: str | None = "4",
    claim: str | None = "5",
    grader: str = "number",
    id: str = "t1",
) -> Group:
    """A group whose episodes answer so; ``None`` is a reply that could not be read."""
    task = Task(id=id, question="2 + 2 = ?", truth=truth, family="sum", grader=grader)
    said = None if claim is None else Claim("user", claim, reliability=0.5)
    episodes = tuple(
        Episode(
            task,
            said,
            (
                Turn(
                    "responder",
                    (),
                    Completion(text=""),
                    Unparsed("the answer is empty") if answer is None else Reply(answer, 0.7),
                ),
            ),
        )
        for answer in answers
    )
    return Group(task, said, episodes)


def new_anchor(name: str) -> Anchor:
    """A registered anchor with what a run would supply."""
    return make_anchor(name, rng=np.random.default_rng(7), private=lambda task: ("4", 0.75))


def check_anchor(name: str) -> None:
    """One verdict an episode, in [0, 1] or None; abstention is the group's; no side effects."""
    anchor = new_anchor(name)
    assert isinstance(anchor, Anchor)
    assert anchor.name == name, "an anchor is registered under its own name"
    assert isinstance(anchor.outside, bool)
    assert anchor.budget == 0, "nothing has been asked of the world yet"
    groups = [
        make_group(answers, truth=truth, claim=claim, id=f"task-{number}")
        for number, (answers, truth, claim) in enumerate(
            itertools.product(
                [["4", "5", "4", None], ["5"], [None, None], ["5", "5", "6", "4.0"]],
                ["4", None],
                ["5", "4", None],
            )
        )
    ]
    spent = 0
    for group in groups:
        before = copy.deepcopy(group)
        verdicts = anchor.judge(group)
        assert group == before, "an anchor must not change what it judges"
        assert len(verdicts) == len(group.episodes)
        abstained = [verdict is None for verdict in verdicts]
        assert all(abstained) or not any(abstained), "an anchor judges a whole group or none of it"
        for episode, verdict in zip(group.episodes, verdicts, strict=True):
            if verdict is not None:
                assert isinstance(verdict, float) and 0.0 <= verdict <= 1.0
                if isinstance(episode.reply, Unparsed):
                    assert verdict == 0.0
        assert isinstance(anchor.budget, int) and anchor.budget >= spent
        spent = anchor.budget
    # The same start gives the same verdicts, and a restored anchor goes on where it was.
    first, second = new_anchor(name), new_anchor(name)
    assert [first.judge(group) for group in groups] == [second.judge(group) for group in groups]
    third = new_anchor(name)
    third.restore(json.loads(json.dumps(first.state())))
    assert third.budget == first.budget
    assert [third.judge(group) for group in groups] == [first.judge(group) for group in groups]


def check_reward(name: str) -> None:
    """Finite, abstains with the anchor (or needs none), worst when unread, right beats wrong."""
    part: RewardPart = make_parts({name: 1.0})[name]
    unread = Unparsed("there is no answer")
    anchored = part(Reply("4", 0.5), None) is None
    if anchored:
        assert part(unread, None) is None, "the anchor abstained on an unread reply"
    lowest = math.inf
    span = None
    for confidence, verdict in itertools.product(GRID, GRID):
        component = part(Reply("4", confidence), verdict)
        assert isinstance(component, Component)
        assert math.isfinite(component.value)
        assert span in (None, component.span), "a part pays one span"
        span = component.span
        lowest = min(lowest, component.value)
        assert part(Reply("4", confidence), verdict) == component, "a part keeps no state"
        if not anchored:
            assert part(Reply("4", confidence), None) == component, "it needs no verdict at all"
    for verdict in GRID:
        component = part(unread, verdict)
        assert component is not None and component.span == span
        assert component.value <= lowest, "an unread reply never earns more than a read one"
    if name in CALIBRATION_SCORES:
        assert span == "confidence"
        for p in GRID[1:-1]:  # proper: the honest report is the best of the levels
            assert max(GRID, key=lambda q: expected(part, q, p)) == p
    elif anchored:
        right, wrong = part(Reply("4", 0.5), 1.0), part(Reply("4", 0.5), 0.0)
        assert right is not None and wrong is not None and right.value > wrong.value


def expected(part: RewardPart, q: float, p: float) -> float:
    """The reward expected for saying q of an answer that is right with probability p."""
    right, wrong = part(Reply("4", q), 1.0), part(Reply("4", q), 0.0)
    assert right is not None and wrong is not None
    return p * right.value + (1 - p) * wrong.value


__all__ = ["ANCHORS", "REWARDS", "check_anchor", "check_reward", "expected", "make_group"]
