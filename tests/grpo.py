"""TRL's GRPOTrainer on play of the seed model, and what demur itself would pay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from transformers import AutoModelForCausalLM, AutoTokenizer

from demur.config import load_recipe
from demur.exports import export_trl
from demur.policies.local import LocalPolicy
from demur.reply import parse
from demur.rewards import make_parts, score
from demur.runlog import RunFolder
from demur.schema import Reply
from demur.tasks.grader import same
from demur.train import train
from demur.world.seed import SEED_FOLDER

WEIGHTS = {"correctness": 1.0, "brier": 0.5, "log": 0.25, "format": 0.125}
OPTIONS: dict[str, dict[str, object]] = {"brier": {"shifted": False}, "log": {"floor": 0.05}}
Rows = list[dict[str, Any]]


def exported_rows(folder: Path) -> Rows:
    """The rows of ``demur export --format trl-grpo`` of a short run of the seed model."""
    small = ("stages.0.dialogues=500", "stages.0.steps=1", "stages.0.batch=4", "tasks.pool=200")
    made = load_recipe("offline_pairs", small)
    run = RunFolder(folder / "run", {"seed": 3, "model": "seed", "recipe": made.model_dump()})
    train(made, LocalPolicy.from_folder(SEED_FOLDER), run, seed=3)
    export_trl(folder / "run", folder / "data", "trl-grpo")
    rows: Rows = pq.read_table(folder / "data" / "data" / "train.parquet").to_pylist()
    assert len(rows) > 8 and {row["claim_right"] for row in rows} == {True, False}
    return rows


class Watched:
    """What TRL called a reward with: it gives nothing itself, so it changes nothing."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **columns: Any) -> list[float | None]:
        self.calls.append(columns)
        return [None] * len(columns["completions"])


def trainer_of(
    rows: Rows,
    out: Path,
    functions: Sequence[Any],
    more: dict[str, Any] | None = None,
    **given: Any,
) -> Any:
    """TRL's trainer of the seed model, which logs every one of its three steps."""
    import datasets
    import trl

    settings = {
        "output_dir": str(out), "max_steps": 3, "per_device_train_batch_size": 8,
        "num_generations": 4, "max_completion_length": 24, "learning_rate": 1e-3,
        "report_to": "none", "use_cpu": True, "save_strategy": "no", "bf16": False,
        "logging_steps": 1, "disable_tqdm": True, "seed": 1,
    } | (more or {})  # fmt: skip
    return trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(SEED_FOLDER),
        reward_funcs=list(functions),
        args=trl.GRPOConfig(**settings),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(SEED_FOLDER),
        **given,
    )


def totals(texts: Sequence[str], verdicts: Sequence[float | None]) -> list[float]:
    """What demur's own ``score`` pays."""
    parts = make_parts(WEIGHTS, OPTIONS)
    pairs = zip(texts, verdicts, strict=True)
    return [score(parse(t), v, WEIGHTS, parts, spans=False).total for t, v in pairs]


def truth_says(texts: Sequence[str], columns: dict[str, Any]) -> list[float | None]:
    said = zip(map(parse, texts), columns["truth"], columns["grader"], strict=True)
    return [
        None if t is None else float(isinstance(r, Reply) and same(r.answer, t, g))
        for r, t, g in said
    ]


def logged(trainer: Any, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if "loss" in line]
