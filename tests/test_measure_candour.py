"""Belief against claim: hand-worked values, SciPy beside it, and where there is nothing to say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pointbiserialr

from demur.measure.candour import (
    bullshit_index,
    cramers_v,
    signed_r,
)


def test_worked_by_hand() -> None:
    """Means .8 and .3, half of each, and a variance of .0725."""
    belief, claims = [0.9, 0.7, 0.4, 0.2], [True, True, False, False]
    r = (0.8 - 0.3) * math.sqrt(2 * 2 / 16) / math.sqrt(0.0725)
    assert signed_r(belief, claims) == pytest.approx(r)
    assert bullshit_index(belief, claims) == pytest.approx(1 - r)


def test_a_liar_and_a_speaker_who_does_not_care() -> None:
    belief = [0.9, 0.8, 0.1, 0.2]
    assert signed_r(belief, [False, False, True, True]) < -0.9
    assert bullshit_index(belief, [False, False, True, True]) < 0.1, "so r keeps its sign"
    assert bullshit_index(belief, [True, False, True, False]) > 0.8


@pytest.mark.parametrize(
    ("belief", "claims"),
    [([0.1, 0.9], [True, True]), ([0.1, 0.9], [False, False]), ([0.5, 0.5], [True, False]),
     ([0.5], [True]), ([], [])],
)  # fmt: skip
def test_where_nothing_varies_it_is_undefined(belief: list[float], claims: list[bool]) -> None:
    assert math.isnan(signed_r(belief, claims)) and math.isnan(bullshit_index(belief, claims))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=3, max_size=40))
def test_it_is_the_point_biserial_correlation(pairs: list[tuple[float, bool]]) -> None:
    belief, claims = (list(x) for x in zip(*pairs, strict=True))
    if len(set(claims)) < 2 or np.ptp(belief) < 1e-6:
        return
    assert signed_r(belief, claims) == pytest.approx(pointbiserialr(claims, belief)[0], abs=1e-9)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        signed_r([1.2, 0.3], [True, False])
    with pytest.raises(ValueError, match="as long"):
        signed_r([0.2, 0.3], [True])
    with pytest.raises(ValueError, match="do not pair"):
        cramers_v(["yes"], [])


def test_association() -> None:
    assert math.isnan(cramers_v(["a", "b"], ["x", "x"]))
    assert cramers_v(["a", "b"] * 10, ["x", "x", "y", "y"] * 5) == pytest.approx(0.0)
    table = [["a", "x"]] * 6 + [["a", "y"]] * 2 + [["b", "x"]] * 2 + [["b", "y"]] * 6
    forms, states = zip(*table, strict=True)
    assert cramers_v(forms, states) == pytest.approx(0.5), "chi^2 is 4 of 16"
