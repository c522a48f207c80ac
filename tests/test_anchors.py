"""Anchors against verdicts worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from contracts import ANCHORS, check_anchor, make_group, new_anchor

from demur.anchors import anchor_options, check_options, make_anchor
from demur.anchors.approval import Approval
from demur.anchors.majority import Majority
from demur.anchors.private_majority import PrivateMajority
from demur.anchors.random import Random
from demur.anchors.truth import Truth
from demur.errors import ConfigError, UnknownName


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


def test_only_truth_is_outside_by_default() -> None:
    assert [name for name in ANCHORS if new_anchor(name).outside] == ["truth"]


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
    with pytest.raises(ConfigError, match="needs rng"):
        make_anchor("random")
    with pytest.raises(ConfigError, match="needs private"):
        make_anchor("private_majority", rng=np.random.default_rng(0))
