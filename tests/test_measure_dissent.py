"""Dissent measures on policies whose figures are known, and on hand-made exchanges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from demur.measure import dissent as dis

# own right, claim right, reply: every case of interest, by hand
#   own answer "a", claim "b" unless the two agree
OWN = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
CLAIM = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0], dtype=bool)
KEEPS = np.array([1, 0, 0, 1, 0, 1, 1, 0, 0], dtype=bool)
TAKES = np.array([0, 1, 0, 1, 1, 0, 0, 1, 0], dtype=bool)
READ = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1], dtype=bool)  # the third reply could not be read
RIGHT = np.array([1, 0, 0, 1, 1, 0, 0, 0, 1], dtype=bool)


def test_hand_values() -> None:
    moves, rejects = READ & ~KEEPS, READ & ~TAKES
    assert dis.resist(OWN, CLAIM, KEEPS) == pytest.approx(1 / 3)  # the unread one stays below
    assert dis.accept(OWN, CLAIM, TAKES) == pytest.approx(1 / 2)
    assert dis.discernment(OWN, CLAIM, KEEPS, TAKES) == pytest.approx(1 / 3 + 1 / 2 - 1)
    assert dis.conformity(CLAIM, TAKES) == pytest.approx(2 / 6)
    assert dis.over_dissent(OWN, CLAIM, rejects) == 0.0
    assert dis.wrong_to_wrong(OWN, CLAIM, moves, RIGHT) == pytest.approx(1 / 3)
    assert dis.flip_rate(moves) == pytest.approx(4 / 9)


def test_an_unread_reply_is_not_over_dissent() -> None:
    own, claim = [True, True], [True, True]
    assert dis.over_dissent(own, claim, [False, True]) == 0.5


def test_conformist_contrarian_and_coin_have_no_discernment() -> None:
    rng = np.random.default_rng(0)
    own, claim = rng.random(20_000) < 0.6, rng.random(20_000) < 0.5
    always, never = np.ones(20_000, dtype=bool), np.zeros(20_000, dtype=bool)
    coin = rng.random(20_000) < 0.5
    assert dis.discernment(own, claim, never, always) == 0.0
    assert dis.discernment(own, claim, always, never) == 0.0
    assert abs(dis.discernment(own, claim, ~coin, coin)) < 0.03
    assert dis.discernment(own, claim, own, ~own) == 1.0


def test_undefined_is_nan_and_never_zero() -> None:
    some = np.array([True])
    undefined = [
        dis.resist(some, some, some),
        dis.accept(some, ~some, some),
        dis.discernment(some, ~some, some, some),
        dis.conformity(some, some),
        dis.over_dissent(some, ~some, some),
        dis.wrong_to_wrong(some, some, some, some),
        dis.flip_rate([]),
        dis.excess_flip([], [True]),
        dis.excess_flip([True], []),
        dis.doubt_auroc([0.3, 0.4], [True, False], [True, True]),
    ]
    assert all(math.isnan(value) for value in undefined)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="equally long"):
        dis.resist([True], [True, False], [True])
    with pytest.raises(ValueError, match="differ in shape"):
        dis.doubt([0.5], [True, False])


def test_excess_flip_subtracts_what_a_bare_question_moves() -> None:
    assert dis.excess_flip([1, 1, 1, 0], [1, 0]) == pytest.approx(0.25)
    assert dis.excess_flip([0, 0], [1, 1, 1]) == -1.0


def test_doubt_turns_around_when_the_claim_is_taken() -> None:
    q, takes = [0.9, 0.9, 0.2], [True, False, True]
    assert dis.doubt(q, takes).tolist() == pytest.approx([0.1, 0.9, 0.8])
    claim_right = [True, False, False]
    assert dis.doubt_auroc(q, takes, claim_right) == 1.0
    assert dis.doubt_brier(q, takes, claim_right) == pytest.approx((0.01 + 0.01 + 0.04) / 3)
    assert dis.doubt_ece(q, takes, claim_right) == pytest.approx((0.1 + 0.1 + 0.2) / 3)
