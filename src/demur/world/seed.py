"""The seed model's folder: how it is made, and what is written beside its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from demur.errors import RunFolderError
from demur.world.pretrain import PretrainConfig, pretrain

SEED_FOLDER = Path(__file__).parent / "seed_model"
RECORD = "pretrain.json"


def make_seed(
    out: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    watch: Callable[[dict[str, float]], None] = lambda _: None,
) -> dict[str, float]:
    """Pretrain into ``out``: a Hugging Face folder with ``pretrain.json`` (recipe and loss curve).

    Checkpoints lie in ``out/checkpoint`` until the model is whole. Returns the last point.
    """
    config = PretrainConfig(seed=seed)
    if steps is not None:
        config = replace(
            config,
            steps=steps,
            dispute_steps=round(config.dispute_steps * steps / config.steps),
            doubt_steps=round(config.doubt_steps * steps / config.steps),
            seat_steps=round(config.seat_steps * steps / config.steps),
            warmup=min(config.warmup, max(1, steps // 10)),
        )
    checkpoint = out / "checkpoint"
    if (out / RECORD).exists():  # written last
        raise RunFolderError(f"{out} already holds a model; choose another --out")
    if checkpoint.exists() and not resume:
        raise RunFolderError(f"{out} holds an unfinished model; go on with --resume or remove it")
    out.mkdir(parents=True, exist_ok=True)

    def on_step(point: dict[str, float]) -> None:
        watch({**point, "of": float(config.total)})

    model, tokenizer, curve = pretrain(config, checkpoint=checkpoint, on_step=on_step)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {"recipe": asdict(config), "curve": curve}
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    shutil.rmtree(checkpoint, ignore_errors=True)
    last = curve[-1]
    return {k: last[k] for k in ("step", "loss", "tokens", "seconds")}
