"""Both sides of one case in one process, in turn: sampling, updates, and the machine's own rate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from demur.bench.cases import LOSS, SHAPES, Case, build, groups, learner, operations, prompts
from demur.engine import sampler
from demur.engine.options import Engine
from demur.engine.settings import autocast, place
from demur.schema import Sampling

MATRIX = 2048  # side of the product that measures a CPU
MATRIX_ON_GPU = 8192

Found = dict[str, Any]


def row(
    against: str, ours: float | None, theirs: float | None, ratio: float | None, unit: str
) -> Found:
    """One side, the other, and how many times better the first is."""
    return {"against": against, "ours": ours, "theirs": theirs, "ratio": ratio, "unit": unit}


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes, the GPU's part included."""
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def beside(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Median seconds of both, taken in turn after a warm-up each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for side, work in zip(times, (ours, theirs), strict=True):
            seconds = timed(work)
            if turn:
                side.append(seconds)
    return statistics.median(times[0]), statistics.median(times[1])


def sampling(size: str, case: Case, repeats: int, device: str) -> Found:
    """Replies a second against ``generate``, which is asked for tokens alone."""
    engine = Engine(device)
    there = place(engine)
    policy = learner(SHAPES[size], True, device)
    model: Any = build(SHAPES[size])  # what transformers says of its types varies with the install
    model.to(there)
    asked = prompts(case, SHAPES[size].vocabulary)
    ids = torch.tensor(asked, device=there)
    settings = Sampling(1.0, case.completion, 0)

    def ours() -> None:
        with autocast(engine, there):
            drawn = sampler.sample(
                policy.model, asked, case.group, settings, stop_ids=frozenset(), shared=True
            )
        assert sum(len(d.ids) for rows in drawn for d in rows) == case.replies * case.completion

    def theirs() -> None:
        with torch.inference_mode(), autocast(engine, there):
            out = model.generate(
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
        assert out.shape == (case.replies, case.prompt + case.completion)

    a, b = beside(ours, theirs, repeats)
    found = row("transformers.generate", case.replies / a, case.replies / b, b / a, "replies/s")
    return found | {"tokens_per_second": case.replies * case.completion / a}


def update(size: str, case: Case, repeats: int, device: str) -> Found:
    """Samples a second of one whole update (forward, backward, AdamW) against padded rows."""
    samples = groups(case, SHAPES[size].vocabulary)
    ours, theirs = (learner(SHAPES[size], shared, device) for shared in (True, False))
    a, b = beside(lambda: ours.update(samples, LOSS), lambda: theirs.update(samples, LOSS), repeats)
    found = row("padded rows", len(samples) / a, len(samples) / b, b / a, "samples/s")
    return found | {"tokens_per_second": len(samples) * (case.prompt + case.completion) / a}


def share(size: str, case: Case, repeats: int, device: str) -> Found:
    """The update's useful floating-point operations a second, of a large product's."""
    samples = groups(case, SHAPES[size].vocabulary)
    policy = learner(SHAPES[size], True, device)
    there = place(Engine(device))
    on_gpu = there.type == "cuda"
    side = MATRIX_ON_GPU if on_gpu else MATRIX
    kind = torch.bfloat16 if on_gpu else torch.float32
    left, right = (torch.randn(side, side, device=there).to(kind) for _ in range(2))
    a, b = beside(lambda: policy.update(samples, LOSS), lambda: left @ right, repeats)
    done, most = operations(SHAPES[size], case) / a / 1e9, 2 * side**3 / b / 1e9
    name = str(kind).removeprefix("torch.")
    return row(f"a large {name} product", done, most, done / most, "GFLOP/s")
