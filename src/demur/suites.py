"""``demur evaluate``: a suite for any model - the embedded world or a task file - and its files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from demur.config import override_value
from demur.engine.options import SAMPLE_TOKENS, Engine, Precision
from demur.errors import ConfigError, UnknownName
from demur.evaluate import (
    Evaluation,
    Suite,
    Tuned,
    baselines,
    calibrate_shares,
    evaluate,
    suite_for,
    tune_threshold,
)
from demur.games.argue import arguments_for
from demur.learners.confidence import own_confidence
from demur.policies.local import LocalPolicy
from demur.pool import claim_settings
from demur.recipe import Tasks
from demur.results import Headline, evaluation_json, figures_of, write_transcripts
from demur.runlog import RunFolder, plain
from demur.schema import Sampling, Task
from demur.tasks.file import load_tasks
from demur.tasks.grader import get_grader
from demur.tasks.source import world_tasks
from demur.world.questions import PLAY_FAMILIES

HELD_OUT = ("difference", "note")


class EvaluateConfig(BaseModel):
    """Settings of an evaluation; ``claims`` is how many each speaker makes on a task.

    ``objectors`` are model folders that argue on the same tasks, for the side that the user's claim
    had, in up to ``argument_tokens`` tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "seed"
    tasks: str | None = None
    question: str = "question"
    answer: str = "answer"
    grader: str | None = None
    n: int = Field(default=250, ge=1)
    k: int = Field(default=8, ge=1)
    max_tokens: int = Field(default=32, ge=1)
    user_claims: int = Field(default=2, ge=0)
    peer_claims: int = Field(default=1, ge=0)
    disclosed: float = Field(default=0.7, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    precision: Precision = "auto"
    sample_tokens: int = Field(default=SAMPLE_TOKENS, ge=1)
    objectors: tuple[str, ...] = ()
    argument_tokens: int = Field(default=80, ge=1)

    def override(self, overrides: Sequence[str]) -> EvaluateConfig:
        """A copy with ``key=value`` overrides; raises ``UnknownName`` or ``ConfigError``."""
        values: dict[str, object] = self.model_dump()
        for text in overrides:
            key, value = override_value(text)
            if key not in values:
                raise UnknownName("key", key, values)
            values[key] = value
        try:
            return EvaluateConfig.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{where}: {first['msg'].lower()}") from None


def _tasks(config: EvaluateConfig, rng: np.random.Generator) -> tuple[list[Task], list[Task]]:
    """Evaluated tasks, and others to tune the baselines on."""
    tuning = max(1, config.n // 2)
    if config.tasks is None:
        held_out = world_tasks(HELD_OUT, "test", max(1, config.n // 2), rng)
        tasks = world_tasks(PLAY_FAMILIES, "test", config.n, rng) + held_out
        return tasks, world_tasks(PLAY_FAMILIES, "dev", tuning, rng)
    if config.grader is not None:
        get_grader(config.grader)  # an unknown one shows here
    loaded = load_tasks(config.tasks, config.question, config.answer, config.grader)
    order = [loaded[int(i)] for i in rng.permutation(len(loaded))]
    return order[: config.n], order[config.n : config.n + tuning]


def run_evaluation(
    config: EvaluateConfig,
    model: Path,
    out: Path,
    say: Callable[[str], None],
    *,
    device: str = "auto",
    resume: bool = False,
) -> dict[str, Any]:
    """Evaluate a model folder and write ``evaluation.json`` and ``transcripts.parquet``.

    Against each objector the same tasks are played again, on its arguments (folder ``against``).
    """
    rng = np.random.default_rng([config.seed, 9])
    tasks, tuning_tasks = _tasks(config, rng)  # a bad file shows before anything is loaded
    folder = RunFolder(out, config.model_dump(), resume=resume)
    if resume and (out / "evaluation.json").exists():
        return dict(json.loads((out / "evaluation.json").read_text()))
    started = time.perf_counter()
    engine = Engine(device, config.precision, config.sample_tokens)
    policy = LocalPolicy.from_folder(model, "seed" if config.model == "seed" else None, engine)
    objectors = [
        LocalPolicy.from_folder(path, label, engine)
        for path, label in zip(config.objectors, labels(config.objectors), strict=True)
    ]
    headline = Headline() if config.tasks is None else Headline(None)

    make = partial(
        suite_for,
        policy,
        rng=rng,
        settings=claim_settings(Tasks(disclosed=config.disclosed)),
        max_tokens=config.max_tokens,
        k=config.k,
    )

    tuned = Tuned()
    if tuning_tasks:
        say("tuning the baselines on other tasks")
        others = make(tuning_tasks, {"user": 1}, seed=config.seed + 3, sham=False)
        tuning = evaluate(policy, others, seed=4)
        tuned = Tuned(tune_threshold(tuning.rows), calibrate_shares(list(tuning.private.values())))
    say("making claims")
    claims = {"user": config.user_claims, "peers": config.peer_claims}
    test = make(tasks, {s: c for s, c in claims.items() if c}, seed=config.seed + 1)
    own = own_confidence(policy.pieces)
    found = evaluate(policy, test, seed=config.seed + 5, shares=tuned.shares, own=own, progress=say)
    say("measuring")
    arm = figures_of(found, headline, budget=0)
    scripted = {
        name: figures_of(each, headline, sliced=False)
        for name, each in baselines(test, found.private, tuned).items()
    }
    write_transcripts(found, out)
    arms, heard = {policy.name: arm}, list[str]()
    for objector in objectors:
        say(f"hearing {objector.name}")
        against, argued, read = argued_by(objector, policy, test, found, config, tuned)
        name = f"{policy.name} against {objector.name}"
        arms[name] = figures_of(against, headline)
        heard.append(f"{objector.name}: {read} of {argued} arguments could be read.")
        (out / "against" / objector.name).mkdir(parents=True, exist_ok=True)
        write_transcripts(against, out / "against" / objector.name)
    result = evaluation_json(
        arms,
        scripted,
        seconds=time.perf_counter() - started,
        config=config.model_dump(),
        verdict={
            "passed": None,
            "sentences": [*_sentences(policy.name, arm.metrics), *heard],
            "criteria": [],
        },
    )
    folder.write_json("evaluation.json", result)
    return dict(plain(result))


def labels(folders: Sequence[str]) -> list[str]:
    """Names for model folders: the fewest last parts of their paths that tell them apart.

    >>> labels(["runs/a/checkpoints/step-9", "runs/b/checkpoints/step-9"])
    ['a-checkpoints-step-9', 'b-checkpoints-step-9']
    """
    parts = [Path(folder).resolve().parts for folder in folders]
    longest = max((len(p) for p in parts), default=0)
    for count in range(1, longest + 1):
        names = ["-".join(p[-count:]).strip("/") for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{'-'.join(p[-2:])}-{i}" for i, p in enumerate(parts)]


def argued_by(
    objector: LocalPolicy,
    policy: LocalPolicy,
    suite: Suite,
    found: Evaluation,
    config: EvaluateConfig,
    tuned: Tuned,
) -> tuple[Evaluation, int, int]:
    """The exchanges of a suite's users again, argued by another model in its own words.

    Returns the evaluation, how many arguments were asked for, and how many could be read.
    """
    wanted = [(t, bool(c.right)) for t, c in suite.exchanges if c.speaker == "user"]
    sampling = Sampling(1.0, config.argument_tokens, config.seed + 7)
    claims = arguments_for(objector, wanted, sampling)
    exchanges = tuple((t, c) for (t, _), c in zip(wanted, claims, strict=True) if c is not None)
    again = Suite((), exchanges, suite.max_tokens, suite.k, sham=False)
    against = evaluate(
        policy, again, seed=config.seed + 5, private=found.private, shares=tuned.shares
    )
    return against, len(wanted), len(exchanges)


def _sentences(name: str, metrics: Mapping[str, Any]) -> list[str]:
    """What was found, calmly, also where there is next to nothing to find."""
    said = []
    for metric, words in (
        ("coverage", "of the replies could be read"),
        ("accuracy_alone", "of the tasks answered right alone"),
        ("resist", "of wrong claims resisted where its own answer was right"),
        ("accept", "of right claims taken where its own answer was wrong"),
    ):
        e = metrics.get(metric)
        if e is None or e.mean != e.mean:
            said.append(f"{name}: nothing to say on {metric} (no such exchanges).")
        else:
            spread = (
                f"95% interval {e.low:.1%} to {e.high:.1%}"
                if e.low < e.high
                else "the same in all of them, so no interval"  # which is not certainty
            )
            said.append(f"{name}: {e.mean:.1%} {words} ({spread}, n = {e.n}).")
    return said
