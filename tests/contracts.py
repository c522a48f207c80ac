"""What every registered part must keep to, whoever wrote it.

A new part is tested by being registered: the contract tests call these over the registries.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Sequence

import numpy as np

from demur.anchors import ANCHORS, Anchor, make_anchor
from demur.anchors.bayes import Beliefs
from demur.games import GAMES, RESPONDER, SEATS, Game, SelfAsking, make_game
from demur.games.rounds import read
from demur.reply import render
from demur.rewards import (
    CALIBRATION_SCORES,
    OUTCOME_REWARDS,
    REWARDS,
    RewardPart,
    make_parts,
)
from demur.schema import (
    Assessment,
    Claim,
    Completion,
    Component,
    Dialogue,
    Episode,
    Group,
    Move,
    Policy,
    Reply,
    Said,
    Sampling,
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


def sureness(completion: Completion, reply: Said, kind: str) -> float | None:
    """How sure a policy was, as a run would tell."""
    return reply.confidence if isinstance(reply, Reply) else None


class Arbiter:
    """A judge who is fairly sure that four is right and that nothing else is."""

    name = "arbiter"

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """Yes to an answer of 4."""
        asked = [dialogue[-1].content for dialogue in dialogues]
        said = ["yes" if re.search(r"Answer: 4(?:\.0)?\n", text) else "no" for text in asked]
        return [[Completion(render(word, 0.8))] * n for word in said]


def new_anchor(name: str, **options: object) -> Anchor:
    """A registered anchor with what a run would supply."""
    return make_anchor(
        name,
        options,
        rng=np.random.default_rng(7),
        private=lambda task: ("4", 0.75),
        own=sureness,
        weigh=lambda task, claim, rate: Beliefs("4", 0.75, 0.2 if claim else 0.0, 0.01),
        past=lambda tasks, n: [["4"] * (n - 1) + [None] for _ in tasks],
        load=lambda model, endpoint: Arbiter(),
        alone=lambda policy, tasks, n: [["4"] * n for _ in tasks],
        lookup=lambda question: "4",
        perturb=lambda task, drawn: "5",
        sold=lambda task, words: ("yes", "no") if words == "4" else None,
    )


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
    if name in OUTCOME_REWARDS:
        for said in (Move("1+1?", "1+1?"), Assessment(0.3, 1.0, True)):
            for verdict in GRID:
                first = part(said, verdict)
                assert first is not None and 0.0 <= first.value <= 1.0
                assert first == part(said, verdict), "a part keeps no state"
            assert part(said, None) is None
        worst = part(unread, 0.5)
        assert worst is None or worst.value == 0.0
        return
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


class Clerk:
    """A policy that notes what it is asked; every third reply it gives cannot be read."""

    def __init__(self) -> None:
        self.name = "clerk"
        self.calls: list[tuple[Dialogue, ...]] = []

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        self.calls.append(tuple(dialogues))
        rng = np.random.default_rng(sampling.seed)
        texts = [
            [render(str(rng.integers(9)), float(rng.integers(11)) / 10) for _ in range(n)]
            for _ in dialogues
        ]
        return [
            [
                Completion(text if (i + j) % 3 else "<answer>4</answer>")
                for j, text in enumerate(row)
            ]
            for i, row in enumerate(texts)
        ]


def check_game(name: str) -> None:
    """A group a draw and n finished episodes a group, read as they were said, in batched rounds."""
    game, n = make_game(name), 4
    if name in SEATS:
        check_seats(name)
        return
    task = Task("t1", "2 + 2 = ?", "4", "sum", "number")
    told = Claim("user", "5", 0.9, disclosed=True, right=False)
    panel = Claim("peers", "5", 0.3, votes=(("Ann", "5"), ("Bob", "5"), ("Cy", "4")))
    past = Claim("self", "4", earlier=render("4", 0.7))
    plain = Task("f1", "How many legs has a spider?", None, "gsm8k", "exact", "file")
    draws = [(t, c) for t in (task, plain) for c in (None, told, panel, past)] + [(task, told)]
    before = copy.deepcopy(draws)
    clerk, sampling = Clerk(), Sampling(1.0, 16, 5)
    groups = game(clerk, draws, n, sampling)
    assert draws == before, "a game must not change what it is given"
    assert len(groups) == len(draws)
    seen = [dialogue for call in clerk.calls for dialogue in call]
    rounds = len(clerk.calls)
    assert len(seen) <= rounds * len(draws) * n, "a round asks for all draws at once"
    assert rounds <= max(len(e.turns) for g in groups for e in g.episodes)
    unread = 0
    for (asked, claim), group in zip(draws, groups, strict=True):
        assert group.task == asked and len(group.episodes) == n
        assert group.claim in (claim, None), "a game leaves a claim out but never makes one up"
        for episode in group.episodes:
            assert (episode.task, episode.claim) == (group.task, group.claim)
            assert episode.turns and episode.reply is episode.turns[-1].reply
            for turn in episode.turns:
                assert turn.seat and turn.dialogue in seen
                assert turn.dialogue[-1].role == "user", "a policy is asked when it is its turn"
                assert any(asked.question in m.content for m in turn.dialogue)
                assert turn.reply == read(turn.completion)
                unread += isinstance(turn.reply, Unparsed)
                if group.claim is None:
                    words = " ".join(m.content for m in turn.dialogue)
                    assert told.answer not in words, "an episode without a claim states none"
    assert unread > 0, "an unread reply is an episode like any other"
    assert game(Clerk(), draws, n, sampling) == groups, "a game keeps no state"
    assert game(Clerk(), [], n, sampling) == []


class SeatClerk(Clerk):
    """Takes any seat: what it asks or argues is new every time, and now and then nothing at all."""

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        rows = super().reply(dialogues, n, sampling)
        for i, dialogue in enumerate(dialogues):
            if re.match(r"Ask |.*Argue ", dialogue[-1].content):
                said = [f"<answer>{10 * i + j}+1?</answer> I say so." for j in range(n - 1)]
                rows[i] = [Completion(text) for text in (*said, "nothing")]
        return rows


def check_seats(name: str) -> None:
    """Moves of every seat in groups, each naming the group it led to; replies read as they are."""
    task = Task("t1", "2+2?", "4", "sum", "number")
    told = Claim("user", "5", 0.9, disclosed=True, right=False)
    sampling = Sampling(1.0, 16, 5)

    def recognise(question: str) -> Task:
        return Task(question, question, None, "sum", "number")

    def new() -> Game:
        return make_game(name, recognise=recognise)

    game = new()
    draws = game.draws(4) if isinstance(game, SelfAsking) else [(task, told), (task, None)]
    before = copy.deepcopy(draws)
    groups = game(SeatClerk(), draws, 4, sampling)
    assert draws == before, "a game must not change what it is given"
    assert {g.seat for g in groups} == {RESPONDER, *SEATS[name]}
    led = [to for g in groups for to in g.led if to is not None]
    about = [g.about for g in groups if g.about is not None]
    assert (led or about) and len(set(led)) == len(led), "a group follows from one move"
    for number, group in enumerate(groups):
        assert len(group.led) in (0, len(group.episodes))
        assert (group.seat == RESPONDER) == group.answers
        assert all(to > number for to in group.led if to is not None), "moves come first"
        for episode in group.episodes:
            turn = episode.turns[-1]
            if group.seat == RESPONDER:
                assert turn.reply == read(turn.completion) and len(group.episodes) == 4
            else:
                assert isinstance(turn.reply, Move | Assessment | Unparsed)
    for to in (*led, *about):
        assert groups[to].seat == RESPONDER
    assert new()(SeatClerk(), draws, 4, sampling) == groups, "the same draws, the same game"
    assert new()(SeatClerk(), [], 4, sampling) == []


def check_policy(policy: Policy, dialogues: Sequence[Dialogue]) -> None:
    """n completions a dialogue, in order, seeded, and with token ids that fit their own numbers."""
    assert isinstance(policy, Policy) and policy.name
    assert len(dialogues) > 2
    sampling = Sampling(1.0, 12, 3)
    rows = policy.reply(dialogues, 3, sampling)
    assert [len(row) for row in rows] == [3] * len(dialogues)
    assert policy.reply(dialogues, 3, sampling) == rows, "the same seed gives the same replies"
    assert policy.reply([], 3, sampling) == []
    greedy = policy.reply(dialogues, 2, Sampling(0.0, 12, 3))
    for said in (c for row in (*rows, *greedy) for c in row):
        assert isinstance(said, Completion) and isinstance(said.text, str)
        assert said.stop in ("stop", "length")
        assert len(said.token_ids) == len(said.logprobs) <= sampling.max_tokens
        assert all(math.isfinite(lp) and lp <= 0.0 for lp in said.logprobs)
        assert bool(said.token_ids) <= bool(said.prompt_ids)
    if all(said.token_ids for row in greedy for said in row):
        assert all(row[0] == row[1] for row in greedy), "greedy decoding has one outcome"
        backwards = policy.reply(dialogues[::-1], 1, Sampling(0.0, 12, 4))[::-1]
        assert [row[0].text for row in backwards] == [row[0].text for row in greedy]
        for row in rows:
            assert len({said.prompt_ids for said in row}) == 1


__all__ = [
    "ANCHORS",
    "GAMES",
    "REWARDS",
    "Clerk",
    "check_anchor",
    "check_game",
    "check_policy",
    "check_reward",
    "expected",
    "make_group",
]
