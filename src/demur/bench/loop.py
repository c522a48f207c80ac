"""What the training loop itself costs: everything of a step but the model.

The seed model says the replies of every step beforehand; the steps are then played again by a
policy that only repeats them and learns nothing. What is timed is the whole of ``train``'s step:
drawing tasks and claims, reading the replies, judging, paying, packing into samples, the meters.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from demur.alarms import Alarms
from demur.bench.beside import Found, row
from demur.config import load_recipe
from demur.engine.options import Engine
from demur.policies.local import LocalPolicy, quiet_libraries
from demur.pool import claim_settings, task_pool
from demur.recipe import PolicyGradient
from demur.schema import Completion, Dialogue, Sample, Sampling, Stats, Trainable
from demur.stages import Progress, heap_at_rest
from demur.tasks.source import Source
from demur.train import reinforce
from demur.world.seed import SEED_FOLDER

AIM = 50_000.0  # replies a second, from the draw to the sample
PARTS = ("draw", "read", "judge", "pay", "pack", "meters")
Script = list[list[list[Completion]]]


@dataclass(frozen=True)
class Load:
    """A recipe's last stage at so many prompts x replies a step, in several processes at once.

    >>> str(Load("demur", 2)), Load("demur").replies
    ('demur, 625x16, 2 processes', 10000)
    """

    recipe: str
    processes: int = 1
    prompts: int = 625
    group: int = 16

    def __str__(self) -> str:
        several = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{self.recipe}, {self.prompts}x{self.group}{several}"

    @property
    def replies(self) -> int:
        """Replies a step of each process."""
        return self.prompts * self.group


LOADS = tuple(Load(recipe, n) for n in (1, 2) for recipe in ("correctness", "demur"))


class Speaking(LocalPolicy):
    """A model that learns nothing; ``script`` keeps what it said, round by round."""

    script: Script

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """Speak, and keep it."""
        self.script.append(super().reply(dialogues, n, sampling))
        return self.script[-1]

    def update(self, samples: Sequence[Sample], loss: Any) -> Stats:
        """Learn nothing; what was kept for a next turn goes, as after any update."""
        self._history.clear()
        return {}


class Repeating(Speaking):
    """One that says what stands in its script."""

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """The next round of the script."""
        return self.script.pop(0)


def play(load: Load, steps: int, policy: Trainable, seed: int = 0) -> list[dict[str, float]]:
    """Seconds of every part of each step."""
    recipe = load_recipe(load.recipe, ["tasks.wrong_claims=perturb"])  # nobody is asked beforehand
    stage = recipe.stages[-1]
    assert isinstance(stage, PolicyGradient)
    stage = stage.model_copy(update={"prompts": load.prompts, "group": load.group})
    tasks = task_pool(recipe.tasks, np.random.default_rng([seed, 0]))
    source = Source(tasks, claim_settings(recipe.tasks), {})
    found: list[dict[str, float]] = []
    last = 0.0

    def lap(part: str) -> None:
        nonlocal last
        now = time.perf_counter()
        found[-1][part] = found[-1].get(part, 0.0) + now - last
        last = now

    rng, alarms = np.random.default_rng([seed, 1]), Alarms(recipe.name)
    take = reinforce(stage, policy, source, Progress(), rng, alarms, lap)
    for step in range(steps):
        found.append({})
        last = time.perf_counter()
        take(step, np.random.default_rng([seed, 2, step]))
    return found


def rehearse(load: Load, steps: int, device: str, seed: int = 0) -> Script:
    """What the seed model says in these steps."""
    policy = Speaking.from_folder(SEED_FOLDER, engine=Engine(device))
    assert isinstance(policy, Speaking)
    policy.script = []
    play(load, steps, policy, seed)
    return policy.script


def timed_parts(load: Load, script: Script, seed: int = 0) -> tuple[float, dict[str, float]]:
    """Median seconds of a step and of its parts, after a first one to warm up."""
    policy = Repeating.from_folder(SEED_FOLDER, engine=Engine("cpu"))
    assert isinstance(policy, Repeating)
    policy.script = list(script)
    with heap_at_rest():  # as training does it
        played = play(load, len(script), policy, seed)[1:]
    whole = statistics.median(sum(parts[name] for name in PARTS) for parts in played)
    return whole, {name: statistics.median(parts[name] for parts in played) for name in PARTS}


def loop(size: str, load: Load, repeats: int, device: str) -> Found:
    """Replies a second against the aim, and the share of each part.

    Each process is a fresh one, for which no reply was read before, and several do the same work on
    tasks of their own at the same time: their rates are summed. The model's size is the seed
    model's, whichever is asked for.
    """
    scripts = [rehearse(load, repeats + 1, device, seed) for seed in range(load.processes)]
    tokens = [len(c.token_ids) for script in scripts for r in script for row in r for c in row]
    timings = _together(load, scripts)
    rate = sum(load.replies / whole for whole, _ in timings)
    spent = {name: sum(parts[name] for _, parts in timings) for name in PARTS}
    found = row(f"an aim of {AIM:.0f}", rate, AIM, rate / AIM, "replies/s")
    return found | {
        "params": sum(p.numel() for p in LocalPolicy.from_folder(SEED_FOLDER).model.parameters()),
        "tokens": statistics.fmean(tokens),
        "parts": {name: seconds / sum(spent.values()) for name, seconds in spent.items()},
    }


def _together(load: Load, scripts: Sequence[Script]) -> list[tuple[float, dict[str, float]]]:
    """Every process gets its script, waits for the others, and plays."""
    context = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    workers = []
    for seed, script in enumerate(scripts):
        mine, theirs = context.Pipe()
        workers.append(context.Process(target=_apart, args=(load, seed, theirs)))
        workers[-1].start()
        theirs.close()
        mine.send(script)
        ends.append(mine)
    for end in ends:
        end.recv()
    for end in ends:
        end.send("go")
    found = [end.recv() for end in ends]
    for worker in workers:
        worker.join()
    return found


def _apart(load: Load, seed: int, end: Connection) -> None:
    quiet_libraries(1)
    script = end.recv()
    end.send("ready")
    end.recv()
    end.send(timed_parts(load, script, seed))
