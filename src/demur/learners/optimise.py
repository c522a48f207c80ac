"""One optimiser step on samples, whatever the loss: pack, add up gradients, clip, step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from demur.engine import state, tree
from demur.engine.adapter import EarlierAdapter
from demur.engine.options import Engine
from demur.engine.settings import autocast, out_of_memory
from demur.errors import EngineError, TrainingError
from demur.learners.schedule import Schedule
from demur.schema import Sample, Stats

Reference = PreTrainedModel | EarlierAdapter
"""A frozen copy of the model, or the same weights with an earlier adapter."""
SCORED = ("score_sum", "level_entropy_sum")  # sums over samples with an expected score
PAIRED = ("margin_sum", "agreement_sum")  # sums over pairs


class Loss(Protocol):
    """A loss over the samples of one step, however they are cut into forward passes."""

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of a frozen reference must be given."""
        ...

    @property
    def whole_groups(self) -> bool:
        """Whether the samples of a group have to be in one forward pass."""
        ...

    @property
    def temperature(self) -> float:
        """What logits are divided by, here and in the reference."""
        ...

    def scale(self, samples: Sequence[Sample]) -> Tensor:
        """The weight of each sample, (N,), so that micro-batches simply add up."""
        ...

    def __call__(
        self,
        logits: Tensor,
        packed: tree.Packed,
        samples: Sequence[Sample],
        scale: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one micro-batch, and sums to be logged."""
        ...


class Optimiser:
    """AdamW over what of a model is trainable, with its ``Schedule``."""

    def __init__(
        self,
        model: PreTrainedModel,
        learning_rate: float,
        *,
        warmup: int = 0,
        decay: int = 0,
        max_grad_norm: float = 1.0,
    ) -> None:
        self.model = model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.adamw = torch.optim.AdamW(
            self.parameters, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.schedule = Schedule(learning_rate, warmup, decay)
        self.max_norm, self.taken = max_grad_norm, 0

    def step(
        self,
        samples: Sequence[Sample],
        loss: Loss,
        *,
        pad_id: int,
        shared: bool,
        engine: Engine,
        reference: Reference | None = None,
        budget: int | None = None,
    ) -> Stats:
        """One step on all samples, accumulated over micro-batches of ``engine.update_tokens``.

        Where memory runs out the step is begun again with half of that, with a warning. Raises
        ``TrainingError`` on a NaN or infinite loss, before any weight has changed.
        """
        if loss.needs_reference and reference is None:
            raise TrainingError("this loss needs keep_reference() first")
        budget = budget or engine.update_tokens
        device, scale = self.model.device, loss.scale(samples)
        totals: dict[str, float] = {"loss": 0.0}
        self.adamw.zero_grad(set_to_none=True)
        try:
            for packed in tree.pack(
                samples,
                pad_id=pad_id,
                shared=shared,
                budget=budget,
                whole=loss.whole_groups,
                device=device,
            ):
                with autocast(engine, device):
                    anchor = _reference(reference, packed, loss)
                    logits = tree.completion_logits(self.model, packed)
                value, stats = loss(logits, packed, samples, scale, anchor)
                value.backward()
                totals["loss"] += float(value.detach())
                for key, part in stats.items():
                    totals[key] = totals.get(key, 0.0) + float(part)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            packed = logits = value = anchor = None  # type: ignore[assignment]
        else:
            return self._apply(totals, len(samples))
        return self._again(samples, loss, pad_id, shared, engine, reference, budget)

    def _again(
        self,
        samples: Sequence[Sample],
        loss: Loss,
        pad_id: int,
        shared: bool,
        engine: Engine,
        reference: Reference | None,
        budget: int,
    ) -> Stats:
        """The step with half the budget, after memory ran out."""
        self.adamw.zero_grad(set_to_none=True)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"out of memory in an update of {budget} tokens a pass; going on with {budget // 2}",
            RuntimeWarning,
            stacklevel=3,
        )
        try:
            return self.step(
                samples,
                loss,
                pad_id=pad_id,
                shared=shared,
                engine=engine,
                reference=reference,
                budget=budget // 2,
            )
        except EngineError as error:
            raise EngineError(
                "out of memory in an update, and it cannot be cut any further; use shorter "
                "replies, a smaller model, or --set engine.checkpointing=true"
            ) from error

    def _apply(self, totals: dict[str, float], count: int) -> Stats:
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm))
        if not (torch.isfinite(torch.tensor([norm, totals["loss"]])).all()):
            raise TrainingError(
                f"the loss became {totals['loss']} (gradient norm {norm}); lower the learning rate "
                "and start from the last checkpoint kept, with --model and a new --out"
            )
        for group in self.adamw.param_groups:
            group["lr"] = self.schedule.at(self.taken)
        try:
            self.adamw.step()  # the first one allocates its two moments, before it changes anything
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise EngineError(
                "out of memory for the optimiser's state, which takes twice what is trained; train "
                "a smaller model, or an adapter on it"
            ) from error
        self.taken += 1
        return _averages(totals) | {"grad_norm": norm, "samples": float(count)}

    def save(self, path: Path, **facts: Any) -> None:
        """Write the state, and ``facts`` with it."""
        state.save_optimiser(path, self.adamw, {"taken": self.taken, **facts})

    def load(self, path: Path) -> dict[str, Any]:
        """Read the state back; returns the facts."""
        facts = state.load_optimiser(path, self.adamw)
        self.taken = facts["taken"]
        return facts


def _reference(earlier: Reference | None, packed: tree.Packed, loss: Loss) -> Tensor | None:
    if earlier is None or not loss.needs_reference:
        return None
    worn = earlier.worn() if isinstance(earlier, EarlierAdapter) else nullcontext(earlier)
    with torch.no_grad(), worn as model:
        return tree.token_logprobs(tree.completion_logits(model, packed), packed, loss.temperature)


def set_checkpointing(model: PreTrainedModel, on: bool) -> None:
    """Let layers compute their activations again in the backward pass instead of keeping them.

    transformers does so in training mode only, in which dropout would run too: so only the layers
    that checkpoint are put into it, and nothing inside them.
    """
    if not on:
        return
    if hasattr(model, "activation_checkpointing_enable"):  # its name in newer transformers
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise EngineError(
            f"{type(model).__name__} has no layers that can compute their activations again; "
            "leave out engine.checkpointing"
        )
    for layer in layers:
        layer.training = True


def _averages(totals: dict[str, float]) -> dict[str, float]:
    """Sums over micro-batches as means a token, a scored sample or a pair."""
    counts = {kind: totals.pop(kind, 0.0) for kind in ("tokens", "scored", "pairs")}
    out = {"loss": totals.pop("loss")}
    for key, value in totals.items():
        kind = "scored" if key in SCORED else "pairs" if key in PAIRED else "tokens"
        out[key.removesuffix("_sum")] = value / counts[kind] if counts[kind] else float("nan")
    return out
