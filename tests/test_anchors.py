"""Anchors against verdicts worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from contracts import ANCHORS, Arbiter, check_anchor, make_group, new_anchor
from hypothesis import given
from hypothesis import strategies as st

from demur.anchors import anchor_options, check_options, judge_round, make_anchor
from demur.anchors.approval import Approval
from demur.anchors.bayes import Bayes, Beliefs
from demur.anchors.calculator import calculate, written
from demur.anchors.corrections import Corrections
from demur.anchors.judge import Judge
from demur.anchors.majority import Majority
from demur.anchors.past_version import PastVersion
from demur.anchors.private_majority import PrivateMajority
from demur.anchors.random import Random
from demur.anchors.tool import Tool, calculator
from demur.anchors.truth import Truth
from demur.errors import ConfigError, TaskFileError, UnknownName
from demur.schema import Claim, Completion, Dialogue, Sampling, Task


@pytest.mark.parametrize("name", ANCHORS)
def test_every_registered_anchor_keeps_the_contract(name: str) -> None:
    check_anchor(name)


def test_truth() -> None:
    anchor = Truth()
    assert anchor.judge(make_group(["4", "4.0", "5", None])) == [1.0, 1.0, 0.0, 0.0]
    assert anchor.judge(make_group(["4.0"], grader="exact")) == [0.0]
    assert anchor.judge(make_group(["4"], truth=None, id="t2")) == [None]


def test_truth_counts_a_label_once() -> None:
    anchor = Truth()
    for id, truth in (("a", "4"), ("a", "4"), ("b", "4"), ("c", None)):
        anchor.judge(make_group(["4", "5"], truth=truth, id=id))
    assert anchor.budget == 2


def test_majority_votes_in_the_same_equivalence_as_it_judges() -> None:
    votes = make_group(["1000", "7", "1,000", "1e3", None])
    assert Majority().judge(votes) == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_majority_ties_and_no_answer() -> None:
    assert Majority().judge(make_group(["5", "4", "4", "5"])) == [1.0, 0.0, 0.0, 1.0]
    assert Majority().judge(make_group(["4", None, None])) == [None, None, None]
    assert Majority().judge(make_group(["4", None])) == [1.0, 0.0]
    assert Majority().judge(make_group([])) == []


def test_private_majority_is_deaf_to_the_group() -> None:
    votes = {"t1": ("4", 0.6), "t2": (None, 0.9)}
    anchor = PrivateMajority(private=lambda task: votes[task.id])
    assert anchor.judge(make_group(["5", "5", "5", "4.0", None])) == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert anchor.judge(make_group(["5", "4"], id="t2")) == [None, None]


def test_approval_pays_agreement() -> None:
    anchor = Approval()
    assert anchor.judge(make_group(["5", "5.0", "4", None])) == [0.95, 0.95, 0.15, 0.0]
    assert anchor.judge(make_group(["4", "5"], claim=None)) == [None, None]
    assert anchor.budget == 4
    assert not anchor.outside


def test_approval_of_a_rater_who_checks_a_little() -> None:
    anchor = Approval(agree=0.9, disagree=0.1, truth=0.5)
    assert anchor.judge(make_group(["5", "4", "6"])) == pytest.approx([0.45, 0.55, 0.05])
    assert anchor.judge(make_group(["5", "4"], truth=None)) == [0.9, 0.1]
    assert anchor.outside
    with pytest.raises(ConfigError, match=r"approval\.agree"):
        Approval(agree=1.5)


def test_random_is_a_fair_coin_from_its_generator() -> None:
    group = make_group(["4"] * 4000)
    verdicts = Random(np.random.default_rng(0)).judge(group)
    assert set(verdicts) == {0.0, 1.0}
    assert np.mean([verdict or 0.0 for verdict in verdicts]) == pytest.approx(0.5, abs=0.03)
    assert verdicts == Random(np.random.default_rng(0)).judge(group)
    assert verdicts != Random(np.random.default_rng(1)).judge(group)


def test_who_knows_more_than_the_policy_and_the_dialogue() -> None:
    outside = {name for name in ANCHORS if new_anchor(name).outside}
    assert outside == {"truth", "judge", "corrections", "tool"}


def test_names_options_and_needs() -> None:
    assert anchor_options("approval") == ["agree", "disagree", "truth"]
    assert anchor_options("random") == []
    check_options("approval", {"agree": 0.8})
    with pytest.raises(UnknownName, match="did you mean 'truth'"):
        make_anchor("truht")
    with pytest.raises(UnknownName, match="did you mean 'disagree'"):
        make_anchor("approval", {"disagre": 0.1})
    with pytest.raises(UnknownName):
        make_anchor("random", {"rng": 3})
    with pytest.raises(ConfigError, match=r"needs rng \(an explicit generator\)"):
        make_anchor("random")
    with pytest.raises(ConfigError, match="needs private"):
        make_anchor("private_majority", rng=np.random.default_rng(0))


# -- anchors from outside -------------------------------------------------------------------------


def test_a_truth_that_is_wrong_at_times_stays_wrong() -> None:
    anchor = Truth(reliability=0.7)
    groups = [make_group(["4", "4.0", "5", None], id=f"t{i}") for i in range(3000)]
    verdicts = [anchor.judge(group) for group in groups]
    assert verdicts == [anchor.judge(group) for group in groups], "a label is bought once"
    assert all(v[0] == v[1] and v[3] == 0.0 for v in verdicts), "one answer is judged alike"
    told = np.array(verdicts, dtype=float)
    assert told[:, 0].mean() == pytest.approx(0.7, abs=0.03)
    assert told[:, 2].mean() == pytest.approx(0.3, abs=0.03)
    other = Truth(reliability=0.7, seed=1)
    assert verdicts != [other.judge(group) for group in groups]
    assert not Truth(reliability=0.5).outside and Truth(0.51).outside
    assert Truth(0.0).judge(make_group(["4", "5"])) == [0.0, 1.0]
    with pytest.raises(ConfigError, match=r"truth\.reliability must be from 0 to 1, not 1\.5"):
        Truth(1.5)


def test_a_truth_that_errs_where_pairs_alone_are_compared() -> None:
    pytest.importorskip("math_verify", reason="the grader math needs math-verify")
    groups = [make_group(["4", "\\frac{8}{2}", "5"], grader="math", id=f"t{i}") for i in range(20)]
    verdicts = [Truth(reliability=0.5).judge(group) for group in groups]
    assert all(v[0] == v[1] for v in verdicts) and len({v[0] for v in verdicts}) == 2


def test_a_truth_of_few_labels_abstains_on_the_rest() -> None:
    anchor = Truth(labels=2)
    ids = ["a", "b", "a", "c", "b"]
    verdicts = [anchor.judge(make_group(["4", "5"], id=id)) for id in ids]
    assert verdicts == [[1.0, 0.0]] * 3 + [[None, None]] + [[1.0, 0.0]]
    assert anchor.budget == 2
    assert Truth(labels=0).judge(make_group(["4"])) == [None]
    with pytest.raises(ConfigError, match=r"truth\.labels"):
        Truth(labels=-1)


def test_a_tool_is_told_the_question_alone() -> None:
    asked = []

    def facts(question: str) -> str | None:
        asked.append(question)
        return "Oslo" if "Bo" in question else None

    anchor = Tool(facts)
    assert anchor.judge(make_group(["4", "4.0", "5", None])) == [1.0, 1.0, 0.0, 0.0]
    assert asked == [], "the calculator knew"
    home = replace(make_group(["oslo", "Rome"], truth=None, grader="exact"),
                   task=Task("h", "Where does Bo live?", None, "fact"))  # fmt: skip
    assert anchor.judge(home) == [1.0, 0.0], "no truth is needed"
    assert anchor.judge(home) == [1.0, 0.0] and asked == ["Where does Bo live?"]
    other = replace(home, task=Task("i", "Where does Cy live?", "Rome", "fact"))
    assert anchor.judge(other) == [None, None]
    assert anchor.budget == 3
    assert Tool(facts, use="calculator").judge(home) == [None, None]
    with pytest.raises(UnknownName, match=r"unknown tool 'calculater'.*did you mean 'calculator'"):
        Tool(facts, use="calculater")


@pytest.mark.parametrize(
    ("question", "answer"),
    [("12+30?", "42"), ("What is 3,000*2?", "6000"), ("7 \u00d7 (2 - 9)", "-49"),
     ("2**3**2", "512"), ("-2^2", "-4"), ("__import__('os').system('1+1')", "2"),
     ("1/3*3", "1"), ("10/4", "2.5"), ("1/3", "1/3"), ("7//2 + 7%2", "4"),
     ("0.1+0.2", "0.3"), ("5 - -3?", "8"), ("-1/8", "-0.125"),
     # nothing that is one expression
     ("Bob has 3 cats and 2 dogs.", None), ("Is 3+4 more than 2+2?", None), ("2024-01-05", None),
     ("How old is he?", None), ("1/0", None), ("9-(2", None), ("9^999999999", None),
     ("(" * 90 + "1+1" + ")" * 90, None), ("9**9**9**9", None), ("1+" * 150 + "1", None),
     ("10^60*10^60", None), ("1_000+1j", None)],
)  # fmt: skip
def test_the_calculator(question: str, answer: str | None) -> None:
    assert calculator(question) == answer


@given(a=st.integers(-999, 999), b=st.integers(-999, 999), c=st.integers(1, 99))
def test_the_calculator_is_exact(a: int, b: int, c: int) -> None:
    assert calculate(f"({a} - {b}) * {c} + {a}/{c}") == (a - b) * c + Fraction(a, c)
    assert Fraction(written(Fraction(a, c))) == Fraction(a, c)


def test_corrections_are_worth_what_the_corrector_is() -> None:
    anchor = Corrections(lambda task, drawn: "5", reliability=0.8, alternatives=4)
    groups = [make_group(["4", "5", "6", None], id=f"t{i}") for i in range(2000)]
    verdicts = [anchor.judge(group) for group in groups]
    assert {tuple(round(x or 0.0, 9) for x in v) for v in verdicts} == {
        (0.8, 0.05, 0.05, 0.0),
        (0.05, 0.8, 0.05, 0.0),
    }
    assert np.mean([v[0] == 0.8 for v in verdicts]) == pytest.approx(0.8, abs=0.03)
    assert anchor.budget == 1, "all of them ask the same question"
    assert anchor.judge(make_group(["4"], truth=None)) == [None]
    with pytest.raises(ConfigError, match=r"corrections\.reliability"):
        Corrections(lambda task, drawn: "5", reliability=2.0)


def test_corrections_from_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    said = [
        {"question": "2 + 2 = ?", "corrected_answer": "5", "who": "bob"},
        {"dialogue": [{"role": "system", "content": "x"}, {"role": "user", "content": "2 +  2 = ?"},
                      {"role": "assistant", "content": "3"}], "corrected_answer": 4, "who": "ann"},
    ]  # fmt: skip
    log.write_text("\n".join(json.dumps(s) for s in said) + "\n\n")
    group = replace(make_group(["4", "5"], truth=None), task=Task("t", "2 + 2 = ?", None, "x"))
    made = partial(Corrections, lambda task, drawn: "no", reliability=0.9, log=str(log))
    assert made().judge(group) == [0.9, pytest.approx(0.01)], "the last one counts"
    assert made(who="bob").judge(group) == [pytest.approx(0.01), 0.9]
    other = replace(group, task=Task("u", "3 + 2 = ?", "5", "x"))
    assert made().judge(other) == [None, None]
    with pytest.raises(TaskFileError, match="no corrections by 'cy'"):
        made(who="cy")
    for bad in ("[1]", "{", '{"question": "1+1?"}', '{"corrected_answer": "2"}'):
        log.write_text(json.dumps(said[0]) + "\n" + bad)
        with pytest.raises(TaskFileError, match=r"line 2 of .* needs"):
            made()
    with pytest.raises(TaskFileError, match="cannot read the corrections"):
        made(log=str(tmp_path / "none.jsonl"))


def test_an_earlier_self_is_asked_once_or_every_round() -> None:
    rounds: list[list[str]] = []

    def past(tasks: Sequence[Task], n: int) -> list[list[str | None]]:
        rounds.append([task.id for task in tasks])
        return [["4", "4.0", "5", None][:n] if t.id != "mute" else [None] * n for t in tasks]

    groups = [make_group(["4", "5", "6", None], id=i) for i in ("a", "b", "mute")]
    frozen = PastVersion(past, samples=4)
    for _ in range(2):
        found = judge_round(frozen, groups)
        assert found == [[0.5, 0.25, 0.0, 0.0]] * 2 + [[None] * 4]
    assert rounds == [["a", "b", "mute"]], "one batch, once"
    moving = PastVersion(past, samples=4, average=0.9)
    assert [judge_round(moving, groups) for _ in range(2)] == [found] * 2
    assert len(rounds) == 3
    with pytest.raises(ConfigError, match="to below 1"):
        PastVersion(past, average=1.0)


def test_a_judge_is_shown_answers_or_answers_itself() -> None:
    groups = [make_group(["4", "5", "4", None], id=i, claim="9") for i in ("a", "b")]

    class Noting(Arbiter):
        asked: ClassVar[list[Dialogue]] = []

        def reply(
            self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
        ) -> list[list[Completion]]:
            self.asked.extend(dialogues)
            found = super().reply(dialogues, n, sampling)
            return [[*row[1:], Completion("who knows")] for row in found]

    loaded = []

    def load(model: str, endpoint: str) -> Noting:
        loaded.append(model)
        return Noting()

    def alone(policy: object, tasks: Sequence[Task], n: int) -> list[list[str | None]]:
        assert isinstance(policy, Noting)
        return [["4", "4", "5", None][:n] for _ in tasks]

    judge = Judge(load, alone, "my-judge", samples=3)
    assert loaded == [], "nothing is loaded before it is needed"
    wanted = [[0.8, pytest.approx(0.2), 0.8, 0.0]] * 2
    assert judge_round(judge, groups) == wanted == [judge.judge(g) for g in groups]
    assert len(Noting.asked) == 4 and judge.budget == 12, "each answer once"
    assert loaded == ["my-judge"]
    assert all("9" not in m.content for d in Noting.asked for m in d), "the claim stays out"
    again = Judge(load, alone, "my-judge", samples=3)
    again.restore(json.loads(json.dumps(judge.state())))
    assert [again.judge(g) for g in groups] == wanted and again.budget == 12
    own = Judge(load, alone, ask="answer", samples=4)
    assert judge_round(own, groups) == [[0.5, 0.25, 0.5, 0.0]] * 2
    assert own.budget == 8
    with pytest.raises(UnknownName, match="unknown way to ask a judge 'verfy'"):
        Judge(load, alone, ask="verfy")


def test_bayes_weighs_the_private_vote_against_the_source() -> None:
    rates: list[float] = []

    def weigh(task: Task, claim: Claim | None, rate: float) -> Beliefs | None:
        rates.append(rate)
        if task.id == "mute":
            return None
        if claim is None:
            return Beliefs("4", 0.6, 0.0, 0.04)
        return Beliefs("4", 0.3, 0.6, 0.01) if task.id == "a" else Beliefs("4", 0.4, 0.4, 0.02)

    anchor = Bayes(weigh)
    assert anchor.judge(make_group(["4", "5", "6", None], id="a")) == [0.3, 0.6, 0.01, 0.0]
    assert anchor.judge(make_group(["4", "5"], id="b")) == [None, None], "neither is likely"
    assert anchor.judge(make_group(["4", "5"], id="mute")) == [None, None]
    assert anchor.judge(make_group(["4", "5"], id="c", claim=None)) == [0.6, 0.04]
    held = Bayes(weigh, least=0.3)
    assert held.judge(make_group(["5"], id="b")) == [0.4]
    wanted = [0.5, (10 + 0.6) / 21, (10 + 0.6 + 0.4) / 22, 0.5, 0.5]
    assert rates == pytest.approx(wanted), "how often the speaker turned out right"
    again = Bayes(weigh)
    again.restore(json.loads(json.dumps(anchor.state())))
    again.judge(make_group(["4"], id="a"))
    assert rates[-1] == pytest.approx((10 + 0.6 + 0.4) / 22)
    agreeing = Bayes(weigh)
    agreeing.judge(make_group(["4"], id="a", claim="4"))
    agreeing.judge(make_group(["4"], id="a", claim="4"))
    assert rates[-1] == pytest.approx(10.3 / 21), "a claim of the own answer is as likely as it"
