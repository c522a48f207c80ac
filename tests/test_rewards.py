"""Reward parts against hand-computed values, and the theorem that makes honesty the best reply."""

from __future__ import annotations

import itertools
import math

import pytest
from contracts import REWARDS, check_reward, expected
from hypothesis import given
from hypothesis import strategies as st

from demur.errors import ConfigError, UnknownName
from demur.rewards import CALIBRATION_SCORES, check_weights, make_parts, score
from demur.rewards.brier import brier
from demur.rewards.log import log
from demur.rewards.spherical import spherical
from demur.schema import Component, Reply, Unparsed

UNREAD = Unparsed("there is no answer")
FINE = [k / 1000 for k in range(1001)]


@pytest.mark.parametrize("name", REWARDS)
def test_every_registered_reward_keeps_the_contract(name: str) -> None:
    check_reward(name)


@pytest.mark.parametrize(
    ("name", "q", "v", "value", "span"),
    [
        ("correctness", 0.3, 1.0, 1.0, "answer"),
        ("correctness", 0.3, 0.25, 0.25, "answer"),
        ("brier", 0.7, 1.0, 0.91, "confidence"),
        ("brier", 0.7, 0.0, 0.51, "confidence"),
        ("brier", 0.7, 0.5, 0.96, "confidence"),
        ("spherical", 0.6, 1.0, 0.6 / math.sqrt(0.52), "confidence"),
        ("spherical", 0.6, 0.0, 0.4 / math.sqrt(0.52), "confidence"),
        ("log", 0.5, 1.0, 1 - math.log(2) / math.log(100), "confidence"),
        ("log", 0.0, 1.0, 0.0, "confidence"),
        ("format", 0.0, 0.0, 1.0, "all"),
    ],
)
def test_values(name: str, q: float, v: float, value: float, span: str) -> None:
    component = make_parts({name: 1.0})[name](Reply("4", q), v)
    assert component is not None
    assert component.value == pytest.approx(value)
    assert component.span == span


def test_published_form_of_brier_is_shifted_by_one() -> None:
    part = brier(shifted=False)
    assert part(Reply("4", 0.7), 1.0) == Component(pytest.approx(-0.09), "confidence")
    assert part(UNREAD, 1.0) == Component(-1.0, "confidence")


def test_unread_replies_earn_the_worst_and_abstention_is_absent() -> None:
    weights = {"correctness": 1.0, "brier": 0.5, "format": 0.5}
    parts = make_parts(weights)
    unread = score(UNREAD, 1.0, weights, parts)
    assert {name: part.value for name, part in unread.components.items()} == {
        "correctness": 0.0,
        "brier": 0.0,
        "format": 0.0,
    }
    abstained = score(Reply("4", 0.7), None, weights, parts)
    assert set(abstained.components) == {"format"}
    assert abstained.total == 0.5


def test_spans_or_the_whole_reply() -> None:
    weights = {"correctness": 1.0, "brier": 0.5, "format": 0.1}
    parts = make_parts(weights)
    by_span = score(Reply("4", 0.7), 1.0, weights, parts, spans=True)
    whole = score(Reply("4", 0.7), 1.0, weights, parts, spans=False)
    assert by_span.by_span() == pytest.approx({"answer": 1.0, "confidence": 0.455, "all": 0.1})
    assert whole.by_span() == pytest.approx({"all": 1.555})
    assert by_span.total == pytest.approx(whole.total) == pytest.approx(1.555)


def test_rlcr_as_released() -> None:
    """0.5 format + 0.5 accuracy + 0.5 (1 - (accuracy - q)^2)."""
    weights = {"format": 0.5, "correctness": 0.5, "brier": 0.5}
    parts = make_parts(weights)
    assert score(Reply("4", 0.8), 1.0, weights, parts, spans=False).total == pytest.approx(1.48)
    assert score(Reply("4", 0.8), 0.0, weights, parts, spans=False).total == pytest.approx(0.68)
    assert score(UNREAD, 1.0, weights, parts, spans=False).total == 0.0


@pytest.mark.parametrize("name", sorted(CALIBRATION_SCORES))
@pytest.mark.parametrize("p", [0.03, 0.2, 0.5, 0.667, 0.9])
def test_honesty_is_optimal(name: str, p: float) -> None:
    """RLCR's theorem, part 1: the expected reward is maximal at q = p."""
    part = make_parts({name: 1.0})[name]
    assert max(FINE, key=lambda q: expected(part, q, p)) == pytest.approx(p)


@pytest.mark.parametrize("name", sorted(CALIBRATION_SCORES))
@given(p=st.floats(0, 1), better=st.floats(0, 1), weight=st.floats(0, 1))
def test_the_most_likely_answer_wins(name: str, p: float, better: float, weight: float) -> None:
    """RLCR's theorem, part 2: among calibrated answers, the likelier right the more reward."""
    low, high = sorted((p, better))
    part = make_parts({name: 1.0})[name]
    assert (
        low + weight * expected(part, low, low) <= high + weight * expected(part, high, high) + 1e-9
    )


@pytest.mark.parametrize("floor", [0.001, 0.01, 0.1])
def test_clipped_and_scaled_log_score_keeps_the_theorem(floor: float) -> None:
    part = log(floor=floor)
    values = [p + expected(part, p, p) for p in FINE]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))
    ends = [part(Reply("4", q), v) for q in (0.0, 1.0) for v in (0.0, 1.0)]
    assert all(end is not None and 0.0 <= end.value <= 1.0 for end in ends)


def test_log_score_in_nats_breaks_the_theorem() -> None:
    """Unclipped: an answer right 20% of the time earns less than a surely wrong one with q = 0."""

    def unclipped(p: float) -> float:
        return p + (p * math.log(p) + (1 - p) * math.log(1 - p) if 0 < p < 1 else 0.0)

    assert unclipped(0.2) == pytest.approx(-0.3004, abs=1e-4)
    assert unclipped(0.2) < unclipped(0.0) == 0.0
    assert min(FINE, key=unclipped) == pytest.approx(1 / (1 + math.e), abs=1e-3)
    nats = log(floor=0.001, scaled=False)
    assert 0.2 + expected(nats, 0.2, 0.2) == pytest.approx(unclipped(0.2))
    assert 0.2 + expected(nats, 0.2, 0.2) < 0.0 + expected(nats, 0.0, 0.0)
    assert nats(UNREAD, 1.0) == Component(math.log(0.001), "confidence")


@pytest.mark.parametrize("floor", [0.0, -1.0, 0.5, 2.0])
def test_log_refuses_a_floor_that_bounds_nothing(floor: float) -> None:
    with pytest.raises(ConfigError, match="floor"):
        log(floor=floor)


def test_a_heavier_calibration_weight_makes_failing_on_purpose_pay() -> None:
    """Why check_weights refuses it: the sure failure with q = 0 beats an honest p = 0.3."""
    for part in (brier(), spherical()):
        assert 0.3 + 2 * expected(part, 0.3, 0.3) < 0.0 + 2 * expected(part, 0.0, 0.0)


def test_check_weights() -> None:
    check_weights({"correctness": 0.5, "brier": 0.5, "format": 0.5})
    check_weights({"correctness": 1.0})
    check_weights({"correctness": 0.3, "brier": 0.1, "log": 0.2})
    with pytest.raises(ConfigError, match="failing on purpose"):
        check_weights({"correctness": 0.5, "brier": 0.6})
    with pytest.raises(ConfigError, match="failing on purpose"):
        check_weights({"correctness": 1.0, "brier": 0.6, "spherical": 0.6})
    with pytest.raises(ConfigError, match="failing on purpose"):
        check_weights({"brier": 0.1, "format": 1.0})
    with pytest.raises(UnknownName, match="did you mean 'brier'"):
        check_weights({"correctness": 1.0, "brierr": 0.5})
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="must be 0 or more"):
            check_weights({"correctness": weight})
    with pytest.raises(ConfigError, match="at least one"):
        check_weights({})


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match="correctness"):
        make_parts({"corectness": 1.0})
    with pytest.raises(UnknownName):
        score(Reply("4", 1.0), 1.0, {"brier": 1.0}, {})


def test_options_reach_the_part() -> None:
    part = make_parts({"brier": 1.0}, {"brier": {"shifted": False}})["brier"]
    assert part(Reply("4", 1.0), 1.0) == Component(0.0, "confidence")
