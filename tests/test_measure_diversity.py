"""Diversity measures against enumeration of every draw."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from demur.measure import diversity as div


def test_no_answer_is_a_vote_class_and_equal_numbers_are_one() -> None:
    votes = ["7", " 7.0", None, "Oslo", "oslo", None, "8"]
    assert div.vote_classes(votes) == [0, 0, 1, 2, 2, 1, 3]
    assert div.distinct_answers(votes) == 4.0
    assert div.distinct_answers([None, None]) == 1.0
    assert math.isnan(div.distinct_answers([])) and math.isnan(div.answer_entropy([]))


def test_entropy_is_in_nats() -> None:
    assert div.answer_entropy(["a"] * 4) == 0.0
    assert not math.copysign(1, div.answer_entropy(["a"] * 4)) < 0
    assert div.answer_entropy(["a", "b", "c", None]) == pytest.approx(math.log(4))
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert div.answer_entropy(["a", "a", "A", "b"]) == pytest.approx(expected)


def test_another_equivalence_can_be_given() -> None:
    assert div.vote_classes(["cat", "car", "dog"], same=lambda a, b: a[0] == b[0]) == [0, 0, 1]


@pytest.mark.parametrize(("n", "c", "k"), [(6, 2, 3), (6, 0, 2), (6, 6, 4), (5, 1, 5), (7, 5, 3)])
def test_pass_at_k_by_enumeration(n: int, c: int, k: int) -> None:
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert float(div.pass_at_k(n, c, k)) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_is_stable_and_broadcasts() -> None:
    out = div.pass_at_k([100_000, 4, 8], [1, 2, 8], 8)
    assert out[0] == pytest.approx(8 / 100_000)
    assert math.isnan(out[1]) and out[2] == 1.0
    with pytest.raises(ValueError, match="0 <= c <= n"):
        div.pass_at_k(3, 4, 2)
    with pytest.raises(ValueError, match="k >= 1"):
        div.pass_at_k(3, 1, 0)


@pytest.mark.parametrize(
    "sizes", [[3, 2, 1], [2, 2, 2], [1, 4, 1], [1, 1, 1, 1, 1], [5], [2, 3, 3]]
)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_maj_at_k_by_enumeration(sizes: list[int], k: int) -> None:
    votes = [i for i, size in enumerate(sizes) for _ in range(size)]
    for right in range(len(sizes)):
        credit = []
        for draw in combinations(votes, k):
            count = Counter(draw)
            top = [answer for answer, m in count.items() if m == max(count.values())]
            credit.append((right in top) / len(top))
        assert div.maj_at_k(sizes, right, k) == pytest.approx(np.mean(credit))


def test_maj_at_n_is_the_modal_answer_with_fractional_credit() -> None:
    assert div.maj_at_k([5, 3], 0, 8) == 1.0
    assert div.maj_at_k([3, 5], 0, 8) == 0.0
    assert div.maj_at_k([3, 3, 2], 1, 8) == 0.5
    assert div.maj_at_k([8], None, 8) == 0.0
    assert math.isnan(div.maj_at_k([4, 3], 0, 8))
