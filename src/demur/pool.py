"""From a recipe's ``tasks`` table to what its runs draw from."""

from __future__ import annotations

import numpy as np

from demur.recipe import Tasks as TaskConfig
from demur.schema import Task
from demur.tasks.file import load_tasks
from demur.tasks.source import ClaimSettings, world_tasks


def claim_settings(tasks: TaskConfig) -> ClaimSettings:
    """The claim settings of a recipe's ``tasks`` table."""
    return ClaimSettings(
        tuple(tasks.claim_reliabilities), tasks.disclosed, tasks.wrong_claims, tuple(tasks.speakers)
    )


def task_pool(tasks: TaskConfig, rng: np.random.Generator) -> list[Task]:
    """The tasks that a run may draw: a file's, or distinct ones of the world's ``play`` split."""
    if tasks.file is None:
        return world_tasks(tasks.families, "play", tasks.pool, rng)
    f = tasks.file
    loaded = load_tasks(f.path, f.question, f.answer, f.grader, f.family, f.limit)
    return [loaded[int(i)] for i in rng.permutation(len(loaded))[: tasks.pool]]
