"""The engine against what people use: sampling, updates, memory, and the share of the machine.

Every case runs both sides in one process, in turn, on one model with random weights, the same
prompts and the same lengths; a figure is the median of the repeats after one warm-up each. A ratio
above 1 says that demur is better. Memory is the exception: each side is a fresh process, as a
process never gives back its peak.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from demur.engine import sampler
from demur.errors import UnknownName
from demur.learners.policy_gradient import PolicyGradient
from demur.policies.local import LocalPolicy, quiet_libraries
from demur.runlog import atomic_write
from demur.schema import Sample, Sampling
from demur.world.tokenizer import build_tokenizer

VOCABULARY = 2048
CONTEXT = 2048
MATRIX = 2048  # side of the product that measures the machine


@dataclass(frozen=True)
class Shape:
    """A Qwen3-shaped model of random weights."""

    hidden: int
    layers: int
    heads: int
    inner: int


SHAPES = {"1M": Shape(128, 4, 4, 384), "9M": Shape(320, 6, 5, 960)}


@dataclass(frozen=True)
class Case:
    """Prompts x group replies each, prompt + completion tokens.

    >>> str(Case(8, 16, 200, 24))
    '8x16, 200+24'
    """

    prompts: int
    group: int
    prompt: int
    completion: int

    def __str__(self) -> str:
        return f"{self.prompts}x{self.group}, {self.prompt}+{self.completion}"


SAMPLING = (Case(32, 16, 40, 14), Case(8, 16, 200, 24), Case(4, 16, 400, 100))
UPDATE = (Case(16, 16, 40, 16), Case(8, 16, 200, 24), Case(4, 16, 200, 100))


def build(shape: Shape) -> Qwen3ForCausalLM:
    """The model of a shape, the same weights every time."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=shape.hidden,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            head_dim=shape.hidden // shape.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
    )
    return model.requires_grad_(True)


def run_bench(
    measures: Sequence[str] | None = None,
    sizes: Sequence[str] | None = None,
    *,
    repeats: int = 5,
    quick: bool = False,
    watch: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, Any]:
    """The document of ``bench.json``: the machine, and one row a measure, model size and case.

    All measures and sizes unless some are named; ``quick`` takes the first size and the first case
    only. Raises ``UnknownName`` for a measure or size that there is not.
    """
    chosen, shapes = measures or tuple(_MEASURES), sizes or tuple(SHAPES)
    for kind, names, known in (("measure", chosen, _MEASURES), ("size", shapes, SHAPES)):
        for name in names:
            if name not in known:
                raise UnknownName(kind, name, known)
    first = 1 if quick else None
    plan = [
        (size, measure, case)
        for size in shapes[:first]
        for measure in chosen
        for case in (SAMPLING if measure == "sampling" else UPDATE)[:first]
    ]
    rows: list[dict[str, Any]] = []
    for size, turns in groupby(plan, key=lambda entry: entry[0]):
        model = build(SHAPES[size])
        params = sum(p.numel() for p in model.parameters())
        for _, measure, case in turns:
            watch(len(rows), len(plan), f"{measure}, {case}, {size}")
            found = _MEASURES[measure](model, size, case, repeats)
            rows.append({"measure": measure, "case": str(case), "params": params, **found})
    return {"machine": machine(), "repeats": repeats, "rows": rows}


def write_bench(folder: Path, found: dict[str, Any]) -> Path:
    """Write ``bench.json`` into a folder, which is made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    return atomic_write(folder / "bench.json", json.dumps(found, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": "cpu",
    }


def _beside(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Median seconds of both, taken in turn after a warm-up each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for side, work in zip(times, (ours, theirs), strict=True):
            started = time.perf_counter()
            work()
            if turn:
                side.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def prompts(case: Case) -> list[tuple[int, ...]]:
    """Random prompts of the case's length."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(1, VOCABULARY, (case.prompts, case.prompt), generator=generator)
    return [tuple(row) for row in drawn.tolist()]


def groups(case: Case) -> list[Sample]:
    """Random groups of samples: half of the replies paid, half not."""
    generator = torch.Generator().manual_seed(2)
    samples = []
    for group, prompt in enumerate(prompts(case)):
        drawn = torch.randint(1, VOCABULARY, (case.group, case.completion), generator=generator)
        for i, reply in enumerate(drawn.tolist()):
            samples.append(
                Sample(
                    prompt_ids=prompt,
                    completion_ids=tuple(reply),
                    logprobs=(-7.6,) * case.completion,
                    advantages=(1.0 if i % 2 else -1.0,) * case.completion,
                    group=group,
                )
            )
    return samples


def _sampling(model: PreTrainedModel, size: str, case: Case, repeats: int) -> dict[str, Any]:
    """Replies a second against ``generate``, which is asked for tokens alone."""
    asked = prompts(case)
    ids = torch.tensor(asked)
    settings = Sampling(1.0, case.completion, 0)
    replies = case.prompts * case.group

    def ours() -> None:
        drawn = sampler.sample(
            model,
            asked,
            case.group,
            settings,
            stop_ids=frozenset(),
        )
        assert sum(len(d.ids) for rows in drawn for d in rows) == replies * case.completion

    def theirs() -> None:
        with torch.inference_mode():
            out = model.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=case.group,
                min_new_tokens=case.completion,
                max_new_tokens=case.completion,
            )
        assert out.shape == (replies, case.prompt + case.completion)

    a, b = _beside(ours, theirs, repeats)
    return _row("transformers.generate", replies / a, replies / b, b / a, "replies/s")


def _learner(model: PreTrainedModel, shared: bool) -> LocalPolicy:
    policy = LocalPolicy(model, build_tokenizer(), shared_prefix=shared)
    policy.optimise(1e-9)
    return policy


def _update(model: PreTrainedModel, size: str, case: Case, repeats: int) -> dict[str, Any]:
    """Samples a second of one whole update (forward, backward, AdamW) against padded rows."""
    samples, loss = groups(case), PolicyGradient()
    ours, theirs = _learner(model, True), _learner(model, False)
    a, b = _beside(
        lambda: ours.update(samples, loss), lambda: theirs.update(samples, loss), repeats
    )
    return _row("padded rows", len(samples) / a, len(samples) / b, b / a, "samples/s")


def _share(model: PreTrainedModel, size: str, case: Case, repeats: int) -> dict[str, Any]:
    """The update's useful floating-point operations a second, of a large float32 product's."""
    samples, loss = groups(case), PolicyGradient()
    policy = _learner(model, True)
    left, right = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    a, b = _beside(lambda: policy.update(samples, loss), lambda: left @ right, repeats)
    done, most = operations(SHAPES[size], case) / a / 1e9, 2 * MATRIX**3 / b / 1e9
    return _row("a large float32 product", done, most, done / most, "GFLOP/s")


def operations(shape: Shape, case: Case) -> float:
    """Floating-point operations that an update of packed trees cannot do without.

    Two a weight and token forward and four backward (arXiv 2001.08361), each prompt once; logits
    of the completions only; attention between the pairs of tokens that may see each other.
    """
    tree = case.prompt + case.group * (case.completion - 1)
    weights = shape.layers * (4 * shape.hidden**2 + 3 * shape.hidden * shape.inner)
    own = case.completion - 1
    pairs = case.prompt * (case.prompt + 1) / 2
    pairs += case.group * (own * case.prompt + own * (own + 1) / 2)
    forward = 2 * weights * tree + 4 * shape.layers * shape.hidden * pairs
    forward += 2 * shape.hidden * VOCABULARY * case.group * case.completion
    return 3 * forward * case.prompts


def _memory(model: PreTrainedModel, size: str, case: Case, repeats: int) -> dict[str, Any]:
    """Peak resident memory of one update beyond what stood before it, each in its own process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        threads = torch.get_num_threads()
        a = pool.apply(_peak, (size, case, True, threads))
        b = pool.apply(_peak, (size, case, False, threads))
    return _row("padded rows", a, b, b / a if a and b else None, "MiB")


def _peak(size: str, case: Case, shared: bool, threads: int) -> float | None:
    quiet_libraries(threads)
    policy = _learner(build(SHAPES[size]), shared)
    tiny = Case(1, 2, 4, 4)
    policy.update(groups(tiny), PolicyGradient())  # what every update needs, whatever its size
    before = _high_water()
    policy.update(groups(case), PolicyGradient())
    grown = _high_water() - before
    return grown or None  # it stayed below what loading took: not measured, which is not zero


def _high_water() -> float:
    """Peak resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def _row(
    against: str, ours: float | None, theirs: float | None, ratio: float | None, unit: str
) -> dict[str, Any]:
    return {"against": against, "ours": ours, "theirs": theirs, "ratio": ratio, "unit": unit}


_MEASURES: dict[str, Callable[[PreTrainedModel, str, Case, int], dict[str, Any]]] = {
    "sampling": _sampling,
    "update": _update,
    "share": _share,
    "memory": _memory,
}
