"""Linear probes: what is in the states is found, what is not there is not, and no item leaks."""

from __future__ import annotations

import numpy as np
import pytest

from demur.measure import auroc
from demur.measure.probe import probe_scores

RNG = np.random.default_rng(3)
ITEMS = [f"item {i}" for i in range(200)]
LABELS = RNG.random(200) < 0.5


def test_a_layer_that_holds_it_is_found() -> None:
    states = RNG.normal(size=(200, 3, 8))
    states[:, 1, 4] += 3.0 * LABELS
    assert auroc(probe_scores(states, LABELS, ITEMS), LABELS) > 0.95


def test_nothing_is_found_in_noise() -> None:
    states = RNG.normal(size=(200, 3, 8))
    assert 0.35 < auroc(probe_scores(states, LABELS, ITEMS), LABELS) < 0.65


def test_an_item_is_never_scored_by_a_probe_that_saw_it() -> None:
    """States tell items apart and nothing else: memory would be perfect, and is worth nothing."""
    which = np.repeat(np.arange(40), 5)
    labels = RNG.random(40) < 0.5
    states = np.zeros((200, 1, 40))
    states[np.arange(200), 0, which] = 1.0
    found = probe_scores(states, labels[which], [f"item {i}" for i in which])
    assert auroc(found, labels[which]) < 0.65


def test_where_there_is_nothing_to_learn_it_is_undefined() -> None:
    states = RNG.normal(size=(20, 1, 4))
    names = [str(i) for i in range(20)]
    assert np.isnan(probe_scores(states, np.ones(20, dtype=bool), names)).all()
    assert np.isnan(probe_scores(states, np.arange(20) % 2 == 0, ["a"] * 20)).all()
    with pytest.raises(ValueError, match="do not pair"):
        probe_scores(states, np.ones(19, dtype=bool), names)
