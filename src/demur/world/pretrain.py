"""Pretraining of the seed model: from the embedded world's text to a Hugging Face folder.

A Qwen3-shaped model of under a million parameters, trained with Muon on its matrices and AdamW on
the rest. Loss falls on the last reply in full and faintly on what comes before it, so that the
model also learns how questions look. Checkpoints make a stopped run resume to the same weights.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from demur.engine import state
from demur.errors import RunFolderError, TrainingError
from demur.schema import Dialogue
from demur.world.text import BROAD, DISPUTES, DOUBTS, SEATS, PretrainingText
from demur.world.tokenizer import build_tokenizer, token_id

PROMPT_WEIGHT = 0.05
PROGRESS = "progress.json"
OPTIMISERS = ("muon", "adam")
PHASES = (BROAD, DISPUTES, DOUBTS, SEATS)
CURVE_EVERY = 50


@dataclass(frozen=True)
class PretrainConfig:
    """The seed model's recipe.

    ``steps`` on the broad mix, then ``dispute_steps`` on the mix with more disputes,
    ``doubt_steps`` on the mix with more doubts and ``seat_steps`` on that mix beside the other
    seats, each with fresh optimisers at that ``scale`` of the rates.
    """

    steps: int = 4400
    dispute_steps: int = 2000
    dispute_scale: float = 0.6
    doubt_steps: int = 2600
    doubt_scale: float = 0.6
    seat_steps: int = 2400
    seat_scale: float = 0.4
    batch: int = 96
    chunk: int = 32
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    inner: int = 384
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    warmup: int = 100
    seed: int = 0
    checkpoint_every: int = 200

    @property
    def phases(self) -> tuple[tuple[int, float], ...]:
        """Steps and scale of the rates, of each phase."""
        return (
            (self.steps, 1.0),
            (self.dispute_steps, self.dispute_scale),
            (self.doubt_steps, self.doubt_scale),
            (self.seat_steps, self.seat_scale),
        )

    @property
    def total(self) -> int:
        """The steps of all phases."""
        return sum(steps for steps, _ in self.phases)


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """The untrained seed model."""
    torch.manual_seed(config.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=128,
            hidden_size=config.hidden,
            intermediate_size=config.inner,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.hidden // config.heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=token_id(tokenizer, "<|end|>"),
            pad_token_id=token_id(tokenizer, "<|pad|>"),
        )
    )


def _encode(tokenizer: PreTrainedTokenizerFast, dialogues: list[Dialogue]) -> list[list[int]]:
    texts = [
        "".join(
            f"<|{m.role}|>{m.content}" + ("<|end|>" if m.role == "assistant" else "")
            for m in dialogue
        )
        for dialogue in dialogues
    ]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def batches(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, phase: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, weights) batches, both (B, T), of dialogues of similar length.

    ``weights[b, t]`` weighs the prediction *of* token t.
    """
    rng = np.random.default_rng([config.seed, 1 + phase])
    stream = iter(PretrainingText(rng, PHASES[phase]))
    assistant = token_id(tokenizer, "<|assistant|>")
    pad = token_id(tokenizer, "<|pad|>")
    while True:
        rows = _encode(tokenizer, list(islice(stream, config.batch * config.chunk)))
        rows.sort(key=len)
        for index in rng.permutation(config.chunk):
            batch = rows[int(index) * config.batch : (int(index) + 1) * config.batch]
            width = len(batch[-1])
            ids = np.full((len(batch), width), pad, dtype=np.int64)
            weights = np.zeros((len(batch), width), dtype=np.float32)
            for i, row in enumerate(batch):
                ids[i, : len(row)] = row
                start = len(row) - row[::-1].index(assistant)
                weights[i, :start] = PROMPT_WEIGHT
                weights[i, start : len(row)] = 1.0
            yield torch.from_numpy(ids), torch.from_numpy(weights)


def _loss(model: Qwen3ForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # (B, T-1, V)
    losses = functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none"
    )
    flat = weights[:, 1:].reshape(-1)
    return (losses * flat).sum() / flat.sum()


def _optimisers(
    model: Qwen3ForCausalLM, config: PretrainConfig
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(
        matrices, lr=config.muon_rate, momentum=0.95, weight_decay=0.01, ns_steps=5
    )
    adam = torch.optim.AdamW(rest, lr=config.adam_rate, betas=(0.9, 0.99), weight_decay=0.0)
    return muon, adam


def _rate(step: int, steps: int, warmup: int) -> float:
    """Warm-up, then constant, then a linear fall over the last half to 2%."""
    if step < warmup:
        return (step + 1) / warmup
    fall = (step - 0.5 * steps) / (0.5 * steps)
    return 1.0 if fall < 0 else max(0.02, 1.0 - fall)


def pretrain(
    config: PretrainConfig,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[dict[str, float]], None] = lambda _: None,
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast, list[dict[str, float]]]:
    """Train the seed model; with ``checkpoint``, resume from it and keep it up to date.

    Returns the model, its tokenizer and the loss curve (a point every 50 steps).
    """
    tokenizer = build_tokenizer()
    model = build_model(config, tokenizer)
    model.train()
    curve: list[dict[str, float]] = []
    done, tokens, before = 0, 0, 0.0
    folder: Path | None = None
    if checkpoint is not None and (checkpoint / PROGRESS).exists():
        saved = json.loads((checkpoint / PROGRESS).read_text())
        if saved["config"] != asdict(config):
            raise RunFolderError(
                f"{checkpoint} was made with other settings; use the same or choose another --out"
            )
        folder = checkpoint / saved["folder"]
        load_model(model, folder / "model.safetensors")
        done, tokens, before = saved["step"], saved["tokens"], saved["seconds"]
        curve = saved["curve"]
    started = time.perf_counter()
    window: list[float] = []
    end = 0
    for phase, (steps, scale) in enumerate(config.phases):
        begin, end = end, end + steps
        if done >= end:
            continue
        optimisers = _optimisers(model, config)
        first = done - begin
        if first and folder is not None:
            for name, optimiser in zip(OPTIMISERS, optimisers, strict=True):
                state.load_optimiser(folder / f"{name}.safetensors", optimiser)
        bases = (config.muon_rate * scale, config.adam_rate * scale)
        stream = islice(batches(config, tokenizer, phase), first, steps)
        for step, (ids, weights) in enumerate(stream, start=first):
            rate = _rate(step, steps, min(config.warmup, steps))
            for optimiser, base in zip(optimisers, bases, strict=True):
                optimiser.param_groups[0]["lr"] = base * rate
            window.append(_step(model, optimisers, ids, weights, begin + step))
            done, tokens = begin + step + 1, tokens + ids.numel()
            seconds = before + time.perf_counter() - started
            point = {"step": done, "loss": window[-1], "tokens": tokens, "seconds": seconds}
            on_step(point)
            if done % CURVE_EVERY == 0 or done == config.total:
                curve.append({**point, "loss": sum(window) / len(window)})
                window = []
            if checkpoint is not None and done % config.checkpoint_every == 0:
                _save_checkpoint(checkpoint, model, optimisers, config, point, curve)
    model.eval()
    return model, tokenizer, curve


def _step(
    model: Qwen3ForCausalLM,
    optimisers: tuple[torch.optim.Optimizer, ...],
    ids: Tensor,
    weights: Tensor,
    number: int,
) -> float:
    loss = _loss(model, ids, weights)
    loss.backward()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"the pretraining loss became {value} at step {number}; lower the rates"
        )
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return value


def _save_checkpoint(
    checkpoint: Path,
    model: Qwen3ForCausalLM,
    optimisers: tuple[torch.optim.Optimizer, ...],
    config: PretrainConfig,
    point: dict[str, float],
    curve: list[dict[str, float]],
) -> None:
    """Write a fresh folder, then name it in the progress file in one atomic step, then tidy up."""
    folder = checkpoint / f"step-{int(point['step'])}"
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, str(folder / "model.safetensors"))
    for name, optimiser in zip(OPTIMISERS, optimisers, strict=True):
        state.save_optimiser(folder / f"{name}.safetensors", optimiser, {})
    progress = {"config": asdict(config), "folder": folder.name, **point, "curve": curve}
    temporary = checkpoint / f"{PROGRESS}.tmp"
    temporary.write_text(json.dumps(progress))
    temporary.replace(checkpoint / PROGRESS)
    for old in checkpoint.glob("step-*"):
        if old != folder:
            shutil.rmtree(old)
