"""Peak memory of one update and of one whole step, each side in a fresh process."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

import torch

from demur.bench.beside import Found, row
from demur.bench.cases import LOSS, SHAPES, Case, groups, learner
from demur.bench.step import asked, own_step, trainer
from demur.engine.options import Engine
from demur.engine.settings import place
from demur.policies.local import quiet_libraries

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def update_memory(size: str, case: Case, repeats: int, device: str) -> Found:
    """What an update needs beyond what stood before it, against padded rows."""
    a, b = (_apart(size, case, side, device) for side in ("tree", "rows"))
    return row("padded rows", a, b, b / a if a and b else None, "MiB")


def step_memory(size: str, case: Case, repeats: int, device: str) -> Found:
    """What a whole step needs beyond what stood before it, against TRL's."""
    a, b = (_apart(size, case, side, device) for side in ("step", "trl"))
    return row("TRL GRPOTrainer", a, b, b / a if a and b else None, "MiB")


def _apart(size: str, case: Case, side: str, device: str) -> float | None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(_peak, (size, case, side, device, torch.get_num_threads()))


def _peak(size: str, case: Case, side: str, device: str, threads: int) -> float | None:
    """MiB at the peak less MiB before; ``None`` where the system does not tell."""
    quiet_libraries(threads)  # as every command runs
    small = Case(2, 2, 4, 4)  # what any update needs, whatever its size, comes first
    shape = SHAPES[size]
    if side == "trl":
        with tempfile.TemporaryDirectory() as folder:
            trainer(size, small, 1, device, folder, []).train()
            work = trainer(size, case, 1, device, folder, [])
            before = _begin(device)
            work.train()
            return _since(before, device)
    policy = learner(shape, side != "rows", device)
    policy.update(groups(small, shape.vocabulary), LOSS)
    samples, texts = groups(case, shape.vocabulary), asked(case, shape.vocabulary)
    before = _begin(device)
    if side == "step":
        own_step(policy, case, texts, 0)
    else:
        policy.update(samples, LOSS)
    return _since(before, device)


def _begin(device: str) -> float | None:
    """Start a new peak at what is held now, and say how much that is."""
    if place(Engine(device)).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    try:
        CLEAR.write_text("5")  # of Linux: the high-water mark becomes what is resident now
    except OSError:
        return None
    return _status("VmRSS")


def _since(before: float | None, device: str) -> float | None:
    if before is None:
        return None
    if place(Engine(device)).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20 - before
    peak = _status("VmHWM")
    return None if peak is None or peak <= before else peak - before


def _status(field: str) -> float | None:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return float(line.split()[1]) / 1024
    return None
