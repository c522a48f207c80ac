"""What the stages of a run share."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur.config import load_recipe
from demur.errors import RunFolderError
from demur.policies.local import LocalPolicy
from demur.pool import task_pool
from demur.runlog import RunFolder
from demur.schema import Completion
from demur.stages import PRIVATE, heap_at_rest, private_states
from demur.train import train


def test_the_collector_is_spared_what_was_there_and_gets_it_back(
    tmp_path: Path, random_model: Path
) -> None:
    small = ("tasks.pool=6", "learner.prompts=4", "learner.group=2", "learner.steps=1")
    recipe = load_recipe("majority", (*small, "tasks.max_tokens=4", "learner.max_tokens=4"))
    frozen: list[int] = []
    policy = LocalPolicy.from_folder(random_model)
    assert gc.get_freeze_count() == 0
    run = RunFolder(tmp_path / "run", {"seed": 0})
    train(recipe, policy, run, watch=lambda _: frozen.append(gc.get_freeze_count()))
    assert frozen[0] > 1000 and gc.get_freeze_count() == 0


def test_the_collector_gets_it_back_after_an_error_and_not_from_somebody_elses_freeze() -> None:
    with pytest.raises(ValueError, match="x"), heap_at_rest():
        raise ValueError("x")
    assert gc.get_freeze_count() == 0
    with heap_at_rest():
        with heap_at_rest():
            pass
        assert gc.get_freeze_count() > 0


class Asked(LocalPolicy):
    """A model that counts how often it is asked."""

    asked = 0

    def reply(self, *given: Any) -> list[list[Completion]]:
        self.asked += 1
        return super().reply(*given)


def test_what_it_thought_before_is_asked_once_and_kept(tmp_path: Path, random_model: Path) -> None:
    recipe = load_recipe("private_majority", ["tasks.pool=12", "tasks.private_samples=3"])
    tasks = task_pool(recipe.tasks, np.random.default_rng(0))
    run = RunFolder(tmp_path / "run", {"seed": 0})
    policy = Asked.from_folder(random_model)
    assert isinstance(policy, Asked)
    first = private_states(recipe, policy, tasks, run, 5)
    assert policy.asked == 1 and list(first) == [task.id for task in tasks]
    assert all(len(state.answers) == 3 for state in first.values())
    assert private_states(recipe, policy, tasks, run, 5) == first and policy.asked == 1
    other = RunFolder(tmp_path / "other", {"seed": 0})
    assert private_states(load_recipe("rlvr"), policy, tasks, other, 5) == {}
    assert policy.asked == 1 and not (tmp_path / "other" / PRIVATE).exists()
    with pytest.raises(RunFolderError, match="begun with other tasks than there are now; put the"):
        private_states(recipe, policy, tasks[1:], run, 5)
