"""Seats beside the responder's: proposals, what came of them, how they are paid and remembered."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from contracts import make_group
from tiny import stopped_at, tiny_policy

from demur.alarms import PATIENCE, Alarms, AlarmWarning
from demur.anchors import judge_round, make_anchor
from demur.config import check_recipe, load_recipe
from demur.errors import ConfigError, UnknownName
from demur.games import SelfAsking, make_game
from demur.games.propose import Propose
from demur.learners.advantage import RunningMeans
from demur.learners.samples import make_samples
from demur.meters import batch_stats
from demur.recipe import PolicyGradient, Recipe
from demur.reply import render
from demur.rewards import make_parts
from demur.rewards.learnability import VARIANTS
from demur.runlog import RunFolder, read_metrics
from demur.schema import (
    Completion,
    Component,
    Dialogue,
    Episode,
    Group,
    Move,
    Policy,
    Reward,
    Sampling,
    Task,
    Turn,
    Unparsed,
)
from demur.stages import Till, needs_private
from demur.train import train
from demur.votes import VoteMeter
from demur.world import questions as q

SAMPLING = Sampling(1.0, 32, 0)
KEPT = next(t for t in (q.computed("sum", a, 7) for a in range(200)) if q.held_out(t))
FREE = [t for t in (q.computed("sum", a, 9) for a in range(200)) if not q.held_out(t)]


class Scripted:
    """Asks what it is told to ask, and answers every question in turn with 1, 2, 2, 2."""

    name = "scripted"

    def __init__(self, asks: Sequence[str]) -> None:
        self.asks, self.calls = list(asks), list[list[Dialogue]]()

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        self.calls.append(list(dialogues))
        if dialogues[0][-1].content.startswith(("Ask", "The question should be")):
            return [[Completion(text, (1,), (0.0,)) for text in self.asks[:n]] for _ in dialogues]
        said = [render("2" if j else "1", 0.5) for j in range(n)]
        return [[Completion(text, (1, 2), (0.0, 0.0)) for text in said] for _ in dialogues]


def propose(asks: Sequence[str], count: int | None = None, **options: object) -> list[Group]:
    game = make_game("propose", options, recognise=q.recognise, kept=q.held_out)
    assert isinstance(game, SelfAsking)
    policy = Scripted([f"<answer>{a}</answer>" for a in asks])
    return game(policy, game.draws(count or len(asks)), 4, SAMPLING)


# -- proposing ------------------------------------------------------------------------------------


def test_a_question_leads_to_its_replies_and_none_to_nothing() -> None:
    first, again = FREE[0].question, FREE[1].question
    asks = [first, "how many?", first, KEPT.question, again]
    moves, *answered = propose(asks, topics=["a sum"])
    assert moves.seat == "proposer" and [g.seat for g in answered] == ["responder"] * 2
    assert moves.led == (1, None, None, None, 2)
    assert [g.task for g in answered] == [FREE[0], FREE[1]], "their truth is known for measuring"
    replies = [episode.reply for episode in moves.episodes]
    assert isinstance(replies[1], Unparsed)
    assert [r.outcome for r in replies if isinstance(r, Move)] == [None, 0.0, None, None]
    assert all(len(g.episodes) == 4 for g in answered)


def test_a_question_of_another_style_has_no_known_truth() -> None:
    moves, answered = propose(["How many legs?"], topics=["a riddle"], style="plain")
    assert moves.led == (1,) and answered.task.truth is None
    assert answered.task.question == "How many legs?"
    assert answered.episodes[0].turns[0].dialogue[0].role == "system"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("12+3?", "there is no question"),
        ("<answer></answer>", "the question is empty"),
        ("<answer>1+1?", "there is no question"),
        (f"<answer>{'1' * 3000}</answer>", "too long"),
        ("<answer>01+1?</answer>", "not one of the world's"),
        ("<answer>2/1?</answer>", "not one of the world's"),
    ],
)
def test_what_is_no_question(text: str, reason: str) -> None:
    game = make_game("propose", recognise=q.recognise)
    assert isinstance(game, Propose)
    found = game.read(Completion(text))
    assert isinstance(found, Unparsed) and reason in found.reason


def test_questions_are_remembered_over_a_run_and_its_resumption() -> None:
    game = make_game("propose", {"topics": ["a sum"]}, recognise=q.recognise)
    assert isinstance(game, Propose)
    policy = Scripted([f"<answer>{FREE[0].question}</answer>"])
    assert game(policy, game.draws(1), 4, SAMPLING)[0].led == (1,)
    other = Propose(q.recognise, q.held_out, ["a sum"])
    other.restore(json.loads(json.dumps(game.state())))
    for held in (game, other):
        (moves,) = held(policy, held.draws(1), 4, SAMPLING)
        assert moves.led == (None,)
    forgetful = Propose(q.recognise, q.held_out, ["a sum"], memory=False)
    for _ in range(2):
        assert len(forgetful(policy, forgetful.draws(1), 4, SAMPLING)) == 2


def test_topics_take_turns_and_both_seats_are_one_policy() -> None:
    game = make_game("propose", recognise=q.recognise)
    assert isinstance(game, SelfAsking)
    policy = Scripted([f"<answer>{t.question}</answer>" for t in FREE[:2]])
    groups = game(policy, game.draws(3), 2, SAMPLING)
    assert [g.task.question for g in groups[:2]] == ["a sum", "a product"]
    assert [len(g.episodes) for g in groups[:2]] == [2, 1]
    assert [len(call) for call in policy.calls] == [2, 2], "a round asks for all at once"
    assert isinstance(policy, Policy)


def test_what_the_world_recognises() -> None:
    for family in ("sum", "product", "difference", "fact", "unseen"):
        task = q.draw(family, "test", np.random.default_rng(0))
        assert q.recognise(task.question) == task and q.held_out(task)
    for text in ("1+1", "1+1? ", "-1+2?", "1+1?2", "home of nobody?", "1234567+1?", "\u0661+1?"):
        assert q.recognise(text) is None
    assert not q.held_out(Task("f", KEPT.question, "1", "file", source="file"))


# -- verdicts and pay -----------------------------------------------------------------------------


def argued(side: bool, led: int | None) -> Group:
    move = Move("5", "I say 5.", side)
    turn = Turn("objector", (), Completion("I say 5.", (1,), (0.0,)), move)
    task = Task("t", "2+2?", "4", "sum", "number")
    return Group(task, None, (Episode(task, None, (turn,)),), (led,))


def test_a_move_is_judged_by_what_came_of_it() -> None:
    answers = make_group(["4", "4", "4", "5"], claim=None)
    unknown = make_group(["4", "5"], truth=None, claim=None)
    groups = [argued(True, 4), argued(False, 4), argued(True, 5), argued(True, None), answers]
    verdicts = judge_round(make_anchor("truth"), [*groups, unknown])
    assert [v[0] for v in verdicts[:4]] == [0.75, 0.25, None, None]
    assert verdicts[4] == [1.0, 1.0, 1.0, 0.0]
    moves, *answered = propose([FREE[0].question, "?", FREE[0].question], topics=["a sum"])
    vote = judge_round(make_anchor("majority"), [moves, *answered])
    assert vote == [[0.75, None, 0.0], [0.0, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("variant", "paid"),
    [  # for k = 0 .. 4 of n = 4, worked out by hand
        ("sqlm", [0, 0, 1, 1, 0]),
        ("sqlm_paper", [0, 1, 1, 1, 0]),
        ("r_zero", [0, 0.5, 1, 0.5, 0]),
        ("r_zero_code", [0, 0.25, 0.5, 0.25, 0]),
        ("absolute_zero", [0, 0.75, 0.5, 0.25, 0]),
        ("spice", [0.043937, 0.822578, 1, 0.822578, 0.043937]),
        ("dr_zero", [0, 1, 2 / 3, 1 / 3, 0]),
        ("variance", [0, 0.75, 1, 0.75, 0]),
    ],
)
def test_learnability(variant: str, paid: list[float]) -> None:
    part = make_parts({"learnability": 1.0}, {"learnability": {"variant": variant}}, n=4)
    found = [part["learnability"](Move("1+1?", "1+1?"), k / 4) for k in range(5)]
    assert [c.value for c in found if c] == pytest.approx(paid, abs=1e-6)
    repeated = part["learnability"](Move("1+1?", "1+1?", outcome=0.0), 0.0)
    assert repeated == Component(0.0), "asked before: nothing, in any variant"


def test_every_variant_of_learnability_is_tested() -> None:
    marks = test_learnability.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {name for name, _ in marks} == set(VARIANTS)


def test_a_question_that_cannot_be_read_is_masked_or_punished() -> None:
    unread = Unparsed("there is no question")
    assert make_parts({"learnability": 1.0})["learnability"](unread, None) is None
    fined = make_parts({"learnability": 1.0}, {"learnability": {"unread": -0.1}})
    assert fined["learnability"](unread, None) == Component(-0.1)
    with pytest.raises(UnknownName, match="variant"):
        make_parts({"learnability": 1.0}, {"learnability": {"variant": "sqml"}})
    with pytest.raises(UnknownName, match="option of reward"):
        make_parts({"learnability": 1.0}, {"learnability": {"varaint": "sqlm"}})
    with pytest.raises(ConfigError, match="no weight"):
        make_parts({"correctness": 1.0}, {"learnability": {"variant": "sqlm"}})
    with pytest.raises(ConfigError, match="two answers"):
        make_parts({"learnability": 1.0}, n=1)


def test_a_running_mean_is_the_seats_own() -> None:
    def pay(value: float) -> Reward:
        return Reward({"learnability": Component(value)}, {"learnability": 1.0})

    means = RunningMeans(decay=0.9)
    assert means.advantages("proposer", [[pay(1.0), pay(0.0)], [None]])[0]["all"].tolist() == [
        0.5,
        -0.5,
    ]
    assert means.means["proposer"]["all"] == pytest.approx(0.5)
    (second,) = means.advantages("proposer", [[pay(1.0), pay(1.0)]])
    assert second["all"].tolist() == pytest.approx([0.5, 0.5]), "all alike, and still worth more"
    assert means.means["proposer"]["all"] == pytest.approx(0.55)
    means.advantages("objector", [[pay(0.0)]])
    assert means.means["proposer"]["all"] == pytest.approx(0.55)
    assert means.advantages("proposer", [[None]]) == [{}]


STAGE = PolicyGradient(
    game="propose",
    anchor="majority",
    group=4,
    seats=load_recipe("sqlm").stages[-1].seats,  # type: ignore[union-attr]
)


def test_each_seat_is_paid_and_updated_by_its_own_rules() -> None:
    groups = propose([t.question for t in FREE[:3]] + ["?"], topics=["a sum"])
    verdicts = judge_round(make_anchor("majority"), groups)
    till = Till(STAGE)
    rewards = till.pay(groups, verdicts)
    assert [r.total for r in rewards[0]] == [1.0, 1.0, 1.0, 0], "3 of 4 agree"
    assert not rewards[0][3].components, "masked"
    assert [r.total for r in rewards[1]] == [0.0, 1.0, 1.0, 1.0]

    def seats(step: int) -> list[str]:
        samples = make_samples(
            *till.learned_from(groups, verdicts, rewards, step),
            pieces=lambda ids, _: ["<answer>2</answer>", "0.5"],
            baselines={"proposer": "rae"},
            means=RunningMeans(),
        )
        return [s.seat for s in samples]

    assert STAGE.seats["proposer"].every == 5
    assert seats(0).count("responder") == seats(3).count("responder") == 12
    assert "proposer" not in seats(3)
    stats = batch_stats(groups, verdicts, rewards)
    assert stats["proposer/valid"] == 0.75 and stats["proposer/verdict"] == 0.75
    assert stats["verdict"] == 0.75 and stats["judged"] == 1.0 and stats["coverage"] == 1.0, (
        "the responder's alone"
    )


def test_a_proposer_is_credited_against_its_past() -> None:
    groups = propose([FREE[0].question, "?", FREE[0].question], topics=["a sum"])
    verdicts = judge_round(make_anchor("majority"), groups)
    rewards = Till(STAGE).pay(groups, verdicts)
    means = RunningMeans()
    means.means = {"proposer": {"all": 0.25}}
    samples = make_samples(
        groups,
        verdicts,
        rewards,
        pieces=lambda ids, _: [""] * len(ids),
        baselines={"proposer": "rae"},
        means=means,
    )
    mine = [s for s in samples if s.seat == "proposer"]
    assert [s.advantages for s in mine] == [(0.75,), (-0.25,)], "asked, and asked again"


def test_all_vote_and_some_are_learned_from() -> None:
    stage = PolicyGradient(game="solo", anchor="majority", group=6, train_on=2)
    group = make_group(["5", "4", "5", "5", "5", "4"], claim=None)
    verdicts = judge_round(make_anchor("majority"), [group])
    till = Till(stage)
    kept, judged, paid = till.learned_from([group], verdicts, till.pay([group], verdicts), 0)
    assert judged == [[1.0, 0.0]] and len(kept[0].episodes) == len(paid[0]) == 2
    alone = make_anchor("majority").judge(kept[0])
    assert alone == [1.0, 0.0], "a tie of the two goes to the first; of the six there is none"


def entropy(shares: list[float]) -> float:
    return -sum(p * math.log(p) for p in shares)


# -- votes and alarms -----------------------------------------------------------------------------


def test_the_figures_of_a_vote() -> None:
    wrong = make_group(["5", "5", "5", "4", "6", None], claim=None, id="a")
    right = make_group(["4", "4", "4.0", "5", "5", "6"], claim=None, id="b")
    groups = [wrong, right, make_group(["1"], truth=None, claim=None)]
    meter = VoteMeter()
    stats = meter(groups, judge_round(make_anchor("majority"), groups))
    assert stats["label_accuracy"] == 0.5 and stats["majority_ratio"] == 0.5
    assert stats["truth_ratio"] == pytest.approx((1 / 6 + 3 / 6) / 2)
    m, g = 3 / 6, 1 / 6  # every positive reward is wrong where the label is
    assert stats["wrong_label_reward_accuracy"] == pytest.approx(1 - m - g)
    assert stats["reward_accuracy"] == pytest.approx((1 - m - g + 1) / 2)
    assert math.isnan(stats["flip_rate"]) and stats["learned"] == stats["corrupted"] == 0
    assert stats["distinct_answers"] == (4 + 3) / 2
    assert stats["entropy"] == pytest.approx(
        (entropy([3 / 6, 1 / 6, 1 / 6, 1 / 6]) + entropy([3 / 6, 2 / 6, 1 / 6])) / 2
    )
    gaps = [0 - 1 / 6, 1 - 3 / 6]  # all of the vote's weight lies on the modal answer
    assert stats["gap"] == pytest.approx(np.mean(gaps))
    assert stats["gap_relative"] == pytest.approx((gaps[0] / (5 / 6) + gaps[1] / (3 / 6)) / 2)
    half = 1.96 * np.std(gaps, ddof=1) / np.sqrt(2)
    assert stats["gap_low"] == pytest.approx(np.mean(gaps) - half)
    assert stats["gap_high"] == pytest.approx(np.mean(gaps) + half)
    sure = [1 / 5 - 1 / 6, 0.0]  # all state the same, but one could not be read
    assert stats["gap_confidence"] == pytest.approx(np.mean(sure))
    other = VoteMeter()
    other.restore(json.loads(json.dumps(meter.state())))
    turned = [make_group(["4.0", "4"], claim=None, id=i) for i in "ab"]
    turned[1] = make_group(["7", "7"], claim=None, id="b")
    for held in (meter, other):
        stats = held(turned, judge_round(make_anchor("majority"), turned))
        assert (stats["flip_rate"], stats["learned"], stats["corrupted"]) == (1.0, 1.0, 1.0)
    silent = [make_group([None, None], claim=None, id="c")]
    stats = meter(silent, judge_round(make_anchor("majority"), silent))
    assert stats["label_accuracy"] == 0.0 and stats["majority_ratio"] == 1.0, "no answer is a vote"
    assert math.isnan(stats["reward_accuracy"]) and math.isnan(stats["wrong_label_majority_ratio"])


@pytest.mark.parametrize(
    ("stats", "name"),
    [
        ({"flat_groups": 1.0}, "flat_rewards"),
        ({"coverage": 0.0}, "no_votes"),
        ({"proposer/valid": 0.0}, "no_proposals"),
        ({"verdict": math.nan, "coverage": 0.9}, "no_verdicts"),
        ({"confidence_std": 0.01, "reward/brier": 0.7}, "confidence_collapse"),
        ({"confidence_auroc": 0.5, "reward/log": 0.7}, "confidence_blind"),
        ({"distinct_answers": 1.05}, "diversity_collapse"),
        ({"adopts_wrong": 0.97}, "conformity"),
        ({"gap_high": 0.0}, "no_gap"),
    ],
)
def test_an_alarm_is_raised_once_and_counted(stats: dict[str, float], name: str) -> None:
    alarms = Alarms()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(PATIENCE - 1):
            assert alarms(stats) == {f"alarm/{name}": step + 1.0}
    with pytest.warns(AlarmWarning, match=f"{PATIENCE} steps") as caught:
        for _ in range(3):
            alarms(stats)
    assert len(caught) == 1
    assert alarms.stop == "", "a run goes on unless it is told otherwise"
    alarms.stop_on = ["flat_rewards", name]
    assert alarms.stop == name
    assert alarms({"flat_groups": 0.2, "coverage": 1.0, "confidence_std": 0.2}) == {}


# -- recipes and runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"game": "propse"}, "unknown game 'propse'"),
        ({"game": "propose", "game_options": {"topic": "a sum"}}, "unknown option of game"),
        ({"game": "propose", "game_options": {"topics": "a sum"}}, "must be a list"),
        ({"game": "propose", "game_options": {"style": "long"}}, "'brief' or 'plain'"),
        ({"game": "solo", "seats": {"proposer": {}}}, "unknown seat of game 'solo'"),
        ({"group": 8, "train_on": 9}, "train_on must lie between 2 and the group of 8"),
        ({"game": "propose", "seats": {"proposer": {"rewards": {"lernability": 1.0}}}}, "lernab"),
        ({"reward_options": {"correctness": {"floor": 1}}}, "unknown option of reward"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(table: dict[str, object], said: str) -> None:
    stage = {"kind": "policy_gradient", **table}
    with pytest.raises(ConfigError, match=said):
        check_recipe({"name": "x", "stages": [stage]})


def test_seats_can_be_set_from_the_command_line() -> None:
    recipe = load_recipe(
        "sqlm",
        [
            "learner.seats.proposer.every=2",
            "learner.seats.proposer.reward_options.learnability.variant=spice",
            'learner.game_options.topics=["a sum"]',
        ],
    )
    stage = recipe.stages[-1]
    assert isinstance(stage, PolicyGradient)
    assert stage.seats["proposer"].every == 2
    assert stage.seats["proposer"].reward_options == {"learnability": {"variant": "spice"}}
    assert stage.game_options["topics"] == ["a sum"]
    with pytest.raises(UnknownName, match=r"learner\.seats\.proposer\.advantage"):
        load_recipe("sqlm", ["learner.seats.proposer.often=2"])


def test_what_needs_private_samples() -> None:
    for name, needed in (("sqlm", False), ("ttrl", False), ("rlcr", False), ("majority", True)):
        assert needs_private(load_recipe(name)) == needed
    assert needs_private(load_recipe("demur")) and needs_private(load_recipe("private_majority"))
    assert not needs_private(load_recipe("majority", ["tasks.wrong_claims=perturb"]))


def small(name: str, **stage: object) -> Recipe:
    table = load_recipe(name).model_dump(exclude_none=True)
    table["tasks"] |= {"pool": 12, "private_samples": 2, "max_tokens": 8}
    table["stages"][-1] |= {"steps": 4, "prompts": 4, "max_tokens": 8, **stage}
    return check_recipe({**table, "checkpoint_every": 1})


@pytest.mark.parametrize("name", ["sqlm", "ttrl", "ttrl_random", "rlcr", "rlcr_code"])
def test_a_stopped_run_of_seats_and_votes_is_the_run_that_was_not(
    tmp_path: Path, name: str
) -> None:
    group: dict[str, object] = {"group": 4, "train_on": 2} if "ttrl" in name else {"group": 4}
    recipe = small(name, **group)
    stopped_at(2, recipe, tiny_policy, tmp_path, seed=3)


@pytest.mark.filterwarnings("ignore::demur.alarms.AlarmWarning")
def test_a_run_ends_when_it_collapses_if_it_is_told_to(tmp_path: Path) -> None:
    """An untrained model writes nothing that can be read, so there is never a vote."""
    recipe = small("majority", steps=PATIENCE + 8, prompts=2, group=2)
    recipe = recipe.model_copy(update={"stop_on": ["no_votes"]})
    run = RunFolder(tmp_path / "run", {"x": 1})
    at = train(recipe, tiny_policy(), run, seed=3)
    assert (at.stopped, at.total) == ("no_votes", PATIENCE)
    lines = list(read_metrics(tmp_path / "run/metrics.jsonl"))
    assert len(lines) == PATIENCE and lines[-1]["alarm/no_votes"] == PATIENCE
    last = run.latest_checkpoint()
    assert last is not None and last.step == PATIENCE
    again = train(recipe, tiny_policy(), RunFolder(tmp_path / "run", {"x": 1}, resume=True), seed=3)
    assert (again.stopped, again.total) == ("no_votes", PATIENCE), "it has ended"
    with pytest.raises(UnknownName, match="unknown alarm 'conformty'"):
        load_recipe("majority", ['stop_on=["conformty"]'])
