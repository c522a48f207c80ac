"""Pretraining text of the other seats: who asks the questions, and who argues about them.

A model that never met these requests could take none of the seats of ``games.propose`` and
``games.argue``. The numbers of proposed sums and products reach a little beyond those that the seed
model learned to compute, so some are too easy for it and some too hard; arguments state any
reliability, whatever the side, so nothing is given away about which of them persuade.
"""

from __future__ import annotations

import numpy as np

from demur.games.phrases import PEERS, argue, claim_text, propose
from demur.schema import Claim, Dialogue, Message, Task
from demur.world import questions as q

TOPICS = {"sum": "a sum", "product": "a product"}
LIMITS = {"sum": (100, 200, 300), "product": (100, 400, 600)}
"""Operands are drawn below one of these; the seed model computes below the second."""
RATES = tuple(k / 10 for k in range(1, 10))
KNOWS = 0.9
"""How often an argument for the right answer gives the right answer."""


def proposal(rng: np.random.Generator) -> Dialogue:
    """A request for a question, and one of that kind and of any difficulty."""
    family = "sum" if rng.random() < 0.5 else "product"
    below = LIMITS[family]
    b = int(rng.integers(below[int(rng.integers(len(below)))]))
    if family == "sum":
        a = int(rng.integers(below[int(rng.integers(len(below)))]))
    else:
        a = int(rng.integers(2, 10 if rng.random() < 0.8 else 20))
    asked = q.computed(family, a, b).question
    return (*propose(TOPICS[family], "brief"), Message("assistant", f"<answer>{asked}</answer>"))


def argument(task: Task, rng: np.random.Generator) -> Dialogue:
    """A request to argue for the right answer or a wrong one, and an argument."""
    assert task.truth is not None
    right = bool(rng.random() < 0.5)
    knows = right and task.family != "unseen" and rng.random() < KNOWS
    answer = task.truth if knows else q.perturb(task, rng)
    rate, told = float(rng.choice(RATES)), bool(rng.random() < 0.5)
    if rng.random() < 0.6:
        claim = Claim("user", answer, rate, told)
    else:
        size = int(rng.integers(1, len(PEERS) + 1))
        claim = Claim("peers", answer, rate, told, votes=tuple((n, answer) for n in PEERS[:size]))
    said = f"<answer>{answer}</answer>{claim_text(claim, 'brief')}"
    return (*argue(task, right), Message("assistant", said))
