"""Games over the registry, private deliberation, and the figures of a training batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from contracts import GAMES, Clerk, check_game
from tiny import tiny_policy

from demur.games import SelfAsking, make_game
from demur.games.phrases import INSTRUCTIONS, RE_ASK, ask, object_to
from demur.games.private import Private, deliberate
from demur.games.rounds import read
from demur.meters import batch_stats
from demur.reply import render
from demur.rewards import make_parts, score
from demur.schema import (
    Assessment,
    Claim,
    Completion,
    Dialogue,
    Episode,
    Group,
    Move,
    Reply,
    Sampling,
    Task,
    Turn,
    Unparsed,
)

SUM = Task("s", "20+22?", "42", "sum", "number")
FILE = Task("f", "How many?", "7", "gsm8k", "number", source="file")
SAMPLING = Sampling(1.0, 16, 0)


@pytest.mark.parametrize("name", GAMES)
def test_every_registered_game_keeps_the_contract(name: str) -> None:
    check_game(name)


@pytest.mark.parametrize("name", GAMES)
def test_a_real_model_plays_every_game(name: str) -> None:
    claim = Claim("user", "41", 0.5, disclosed=True, right=False)
    game = make_game(name)
    draws = game.draws(2) if isinstance(game, SelfAsking) else [(SUM, claim), (SUM, None)]
    groups = game(tiny_policy(), draws, 3, SAMPLING)
    for group in groups:
        for episode in group.episodes:
            said = episode.turns[-1].completion
            assert (said.token_ids and said.prompt_ids) or episode.turns[
                0
            ].completion.stop == "length"
            assert isinstance(episode.reply, Reply | Move | Assessment | Unparsed)


def test_solo_leaves_the_claim_out_and_objection_states_it() -> None:
    claim = Claim("user", "41", 0.9, disclosed=True, right=False)
    (alone,) = make_game("solo")(Clerk(), [(SUM, claim)], 1, SAMPLING)
    assert alone.claim is None and alone.episodes[0].turns[0].dialogue == ask(SUM)
    (objected,) = make_game("objection")(Clerk(), [(SUM, claim)], 1, SAMPLING)
    assert objected.claim == claim
    (message,) = objected.episodes[0].turns[0].dialogue
    assert message.content == "20+22? I say 41. I am right 0.9."


def test_how_claims_are_put() -> None:
    hidden = Claim("user", "41", 0.9)
    assert object_to(SUM, hidden)[0].content == "20+22? I say 41."
    panel = Claim("peers", "41", 0.3, True, False, (("Ann", "41"), ("Bob", "42"), ("Cy", "41")))
    assert object_to(SUM, panel)[0].content == (
        "20+22? Ann says 41. Bob says 42. Cy says 41. Each is right 0.3."
    )
    earlier = render("41", 0.8)
    roles = [(m.role, m.content) for m in object_to(SUM, Claim("self", "41", earlier=earlier))]
    assert roles == [("user", "20+22?"), ("assistant", earlier), ("user", RE_ASK)]
    with pytest.raises(ValueError, match="earlier turn"):
        object_to(SUM, Claim("self", "41"))
    system, user = object_to(FILE, Claim("user", "8", 0.9, disclosed=True))
    assert (system.role, system.content) == ("system", INSTRUCTIONS)
    assert user.content.startswith("How many?\nI think the answer is 8.") and "0.9" in user.content


def test_a_reply_cut_off_after_it_was_whole_still_counts() -> None:
    whole = render("42", 0.7)
    assert isinstance(read(Completion(whole + "<answer>4", stop="length")), Reply)
    cut = read(Completion(whole[:-5], stop="length"))
    assert isinstance(cut, Unparsed) and "token limit" in cut.reason
    ended = read(Completion(whole[:-5], stop="stop"))
    assert isinstance(ended, Unparsed) and "token limit" not in ended.reason


# -- private deliberation -------------------------------------------------------------------------


class Votes:
    """A policy that gives listed answers in turn; ``None`` is a reply that cannot be read."""

    name = "votes"

    def __init__(self, book: dict[str, Sequence[str | None]]) -> None:
        self.book = book
        self.asked: list[Dialogue] = []

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        self.asked += dialogues
        return [
            [
                Completion("?" if answer is None else render(answer, (2 * i) / 10))
                for i, answer in enumerate(self.book[d[-1].content][:n])
            ]
            for d in dialogues
        ]


def private_of(*answers: str | None, task: Task = SUM) -> Private:
    policy = Votes({task.question: answers})
    found = deliberate(policy, [task], len(answers), SAMPLING)
    assert list(found) == [task.id] and policy.asked == [ask(task)]
    return found[task.id]


def test_deliberation_finds_the_modal_answer_and_its_share() -> None:
    state = private_of("42", "41", "42.0", None)
    assert state.answers == ("42", "41", "42.0", None)
    assert state.confidences == (0.0, 0.2, 0.4, None)
    assert (state.modal, state.share) == ("42", 0.5), "42 and 42.0 are one answer to this grader"
    assert state.distinct == 3 and state.right is True
    assert state.wrong_answers() == ["41"]


def test_unreadable_samples_are_votes_too() -> None:
    state = private_of(None, "42", None)
    assert (state.modal, state.share, state.right) == (None, pytest.approx(2 / 3), False)
    tied = private_of("41", "42")
    assert (tied.modal, tied.share, tied.right) == ("41", 0.5, False)


def test_nothing_is_right_or_wrong_where_the_truth_is_unknown() -> None:
    state = private_of("a", "b", "b", task=Task("o", "Why?", None, "open"))
    assert state.modal == "b" and state.right is None and state.wrong_answers() == []


def test_a_real_models_deliberation_is_seeded() -> None:
    policy = tiny_policy()
    first = deliberate(policy, [SUM], 8, SAMPLING)
    assert deliberate(policy, [SUM], 8, SAMPLING) == first
    assert len(first["s"].answers) == 8


# -- meters ---------------------------------------------------------------------------------------


def episodes(task: Task, claim: Claim | None, *texts: str) -> Group:
    turns = [(c, read(c)) for c in (Completion(t) for t in texts)]
    return Group(
        task, claim, tuple(Episode(task, claim, (Turn("responder", (), c, r),)) for c, r in turns)
    )


def test_the_figures_of_a_batch() -> None:
    wrong, right = Claim("user", "41", right=False), Claim("user", "42", right=True)
    groups = [
        episodes(SUM, wrong, render("42", 0.9), render("41.0", 0.7), "no"),
        episodes(SUM, right, render("42", 0.5), render("42", 0.5)),
        episodes(Task("o", "Why?", None, "open"), None, render("why not", 0.3)),
    ]
    verdicts = [[1.0, 0.0, 0.0], [1.0, 1.0], [None]]
    weights = {"correctness": 1.0, "brier": 0.5}
    parts = make_parts(weights)
    rewards = [
        [score(e.reply, v, weights, parts) for e, v in zip(g.episodes, vs, strict=True)]
        for g, vs in zip(groups, verdicts, strict=True)
    ]
    stats = batch_stats(groups, verdicts, rewards)
    briers = [1 - 0.01, 1 - 0.49, 0.0, 0.75, 0.75]
    assert stats["reward/brier"] == pytest.approx(sum(briers) / 5)
    assert stats["reward/correctness"] == pytest.approx(3 / 5)
    assert stats["reward"] == pytest.approx((3 + 0.5 * sum(briers)) / 5), "the abstained are not 0"
    assert stats["verdict"] == pytest.approx(3 / 5)
    assert stats["coverage"] == pytest.approx(5 / 6)
    assert stats["accuracy"] == pytest.approx(3 / 4)
    mean = (0.9 + 0.7 + 0.5 + 0.5 + 0.3) / 5
    assert stats["confidence_mean"] == pytest.approx(mean)
    spread = sum((c - mean) ** 2 for c in (0.9, 0.7, 0.5, 0.5, 0.3)) / 5
    assert stats["confidence_std"] == pytest.approx(math.sqrt(spread))
    assert stats["adopts_wrong"] == pytest.approx(1 / 2)
    assert stats["adopts_right"] == 1.0
    assert stats["flat_groups"] == pytest.approx(2 / 3)


def test_a_share_of_nothing_is_nan() -> None:
    group = episodes(SUM, None, "no", "neither")
    parts = make_parts({"correctness": 1.0})
    unpaid = [[score(e.reply, None, {"correctness": 1.0}, parts) for e in group.episodes]]
    stats = batch_stats([group], [[None, None]], unpaid)
    for name in ("reward", "verdict", "accuracy", "confidence_mean", "confidence_std"):
        assert math.isnan(stats[name]), name
    assert math.isnan(stats["adopts_wrong"]) and math.isnan(stats["adopts_right"])
    assert stats["coverage"] == 0.0
    assert "reward/correctness" not in stats, "a part that was never given has no mean"
    empty = batch_stats([], [], [])
    assert all(math.isnan(value) for value in empty.values())
