"""The Bayes listener against enumeration of a small world in which everything is known."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from demur.measure import belief as bel

OTHERS = 4  # alternatives to the own answer; own is answer 0
G = 1 / OTHERS


def enumerate_world(p: float, r: float, votes: tuple[int, ...]) -> tuple[list[float], float]:
    """P(truth is a | votes) for each answer a, by summing the joint; a vote is right with r."""
    joint = []
    for truth in range(OTHERS + 1):
        weight = p if truth == 0 else (1 - p) / OTHERS
        for vote in votes:
            weight *= r if vote == truth else (1 - r) / OTHERS
        joint.append(weight)
    return [x / sum(joint) for x in joint], sum(joint)


@pytest.mark.parametrize(("p", "r"), list(product([0.05, 0.5, 0.8], [0.1, 0.5, 0.9])))
def test_posterior_by_enumeration(p: float, r: float) -> None:
    truth, _ = enumerate_world(p, r, (1,))
    own, claim, other = bel.posterior(p, r, False, G, G)
    assert (float(own), float(claim)) == pytest.approx((truth[0], truth[1]))
    assert float(other) == pytest.approx(sum(truth[2:]))
    third = bel.third_answer(bel.Posterior(own, claim, other), False, G)
    assert float(third) == pytest.approx(truth[2])

    agreed, _ = enumerate_world(p, r, (0,))
    beliefs = bel.posterior(p, r, True, G, G)
    assert float(beliefs.own) == pytest.approx(agreed[0])
    assert float(beliefs.claim) == 0.0
    assert float(bel.third_answer(beliefs, True, G)) == pytest.approx(agreed[1])


@pytest.mark.parametrize("votes", [(1, 1, 0), (1, 1, 1), (0, 1, 2), (1, 0, 0), (1,)])
def test_panel_by_enumeration(votes: tuple[int, ...]) -> None:
    p, r = 0.6, 0.55
    truth, _ = enumerate_world(p, r, votes)
    likelihoods = bel.panel_likelihoods(votes.count(1), votes.count(0), len(votes), r, G)
    beliefs = bel.update(p, likelihoods, False, G)
    # own and claim compare exactly; "other" is exact where no third answer has a vote
    assert float(beliefs.own / beliefs.claim) == pytest.approx(truth[0] / truth[1])
    if 2 not in votes:
        assert float(beliefs.other) == pytest.approx(sum(truth[2:]))


def test_a_panel_of_one_is_a_claim() -> None:
    panel = bel.update(0.3, bel.panel_likelihoods(1, 0, 1, 0.7, 0.2), False, 0.2)
    assert np.allclose(panel, bel.posterior(0.3, 0.7, False, 0.2, 0.2))
    agreeing = bel.update(0.3, bel.panel_likelihoods(1, 1, 1, 0.7, 0.2), True, 0.2)
    assert np.allclose(agreeing, bel.posterior(0.3, 0.7, True, 0.2, 0.2))


def test_posterior_sums_to_one_and_agreement_reinforces() -> None:
    rng = np.random.default_rng(1)
    p, r, same = rng.random(500), rng.random(500), rng.random(500) < 0.5
    beliefs = bel.posterior(p, r, same)
    assert np.allclose(sum(beliefs), 1.0)
    strong = same & (r > 0.5) & (p > 0.01)
    assert bool(np.all(beliefs.own[strong] > p[strong]))


def test_take_the_claim_exactly_when_the_source_is_more_reliable() -> None:
    p = np.array([0.2, 0.5, 0.8, 0.5, 0.6])
    r = np.array([0.5, 0.8, 0.5, 0.5, 0.61])
    action, probability = bel.best_reply(bel.posterior(p, r, False, G, G), False, G)
    assert action.tolist() == [bel.TAKE, bel.TAKE, bel.KEEP, bel.KEEP, bel.TAKE]
    assert bool(np.all((probability > 0) & (probability < 1)))


def test_a_third_answer_when_both_are_known_to_be_bad() -> None:
    action, _ = bel.best_reply(bel.posterior(0.01, 0.01, False, G, G), False, G)
    assert int(action) == bel.THIRD


def test_impossible_evidence_is_nan() -> None:
    beliefs = bel.posterior([1.0, 0.5], 1.0, False)
    action, probability = bel.best_reply(beliefs, False)
    assert math.isnan(probability[0]) and action[0] == bel.KEEP
    assert action[1] == bel.TAKE and probability[1] == 1.0


def test_regret_is_never_negative_and_nil_for_the_oracle() -> None:
    rng = np.random.default_rng(2)
    p, r, same = rng.random(2000), rng.random(2000), rng.random(2000) < 0.3
    beliefs = bel.posterior(p, r, same)
    oracle, _ = bel.best_reply(beliefs, same)
    assert np.allclose(bel.bayes_regret(beliefs, oracle, same), 0.0)
    replies = rng.integers(0, 3, 2000)
    regret = bel.bayes_regret(beliefs, replies, same)
    assert bool(np.all(regret >= 0)) and regret.mean() > 0.1
    keep, take = (bel.bayes_regret(beliefs, np.full(2000, a), same) for a in (bel.KEEP, bel.TAKE))
    assert np.allclose(keep[same], take[same])  # taking what one holds is keeping it


def test_adoption_slope_recovers_a_linear_rule_and_marks_the_undefined() -> None:
    rng = np.random.default_rng(4)
    p, r = rng.random(40_000), rng.random(40_000)
    takes = rng.random(40_000) < 0.1 + 0.3 * (1 - p) + 0.5 * r
    slopes = bel.adoption_slope(p, r, takes)
    assert slopes == pytest.approx((0.3, 0.5), abs=0.02)
    assert bel.adoption_slope(p, r, np.ones(40_000)) == pytest.approx((0, 0), abs=1e-9)
    constant = bel.adoption_slope(p, np.full(40_000, 0.5), takes)
    assert math.isnan(constant.reliability) and constant.uncertainty == pytest.approx(0.3, abs=0.02)
    assert all(map(math.isnan, bel.adoption_slope(p, 1 - p, takes)))  # collinear
    assert all(map(math.isnan, bel.adoption_slope([], [], [])))


def test_probabilities_are_checked() -> None:
    with pytest.raises(ValueError, match="r must be a probability"):
        bel.posterior(0.5, 1.5, False)
    with pytest.raises(ValueError, match="g must be a probability strictly"):
        bel.posterior(0.5, 0.5, False, g=1.0)
    with pytest.raises(ValueError, match="votes"):
        bel.panel_likelihoods(4, 0, 3, 0.5)
