"""Solo: the question alone. Any claim in the draw is left out."""

from __future__ import annotations

from collections.abc import Sequence

from demur.games.phrases import ask
from demur.games.rounds import one_round
from demur.schema import Claim, Group, Policy, Sampling, Task


def play(
    policy: Policy, draws: Sequence[tuple[Task, Claim | None]], n: int, sampling: Sampling
) -> list[Group]:
    """Ask every task ``n`` times without a claim."""
    alone: list[tuple[Task, Claim | None]] = [(task, None) for task, _ in draws]
    return one_round(policy, alone, [ask(task) for task, _ in alone], n, sampling)
