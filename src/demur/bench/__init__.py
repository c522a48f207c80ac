"""The engine against what people use: sampling, updates, whole steps, memory, growth; the loop.

Every case runs both sides in one process, in turn, on models of the same random weights, the same
prompts and the same lengths; a figure is the median of the repeats after one warm-up each. A ratio
above 1 says that demur is better. Memory is the exception: each side is a fresh process, as a
process never gives back its peak.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from demur.bench import beside, growth, loop, memory, step
from demur.bench.cases import ON_GPU, SAMPLING, SHAPES, STEP, UPDATE, USUAL, Case, build
from demur.bench.plot import markdown, write_plot
from demur.engine.options import Engine
from demur.engine.settings import place
from demur.errors import UnknownName
from demur.runlog import atomic_write

Measure = Callable[[str, Any, int, str], dict[str, Any]]
Watch = Callable[[int, int, str], None]
MEASURES = ("sampling", "update", "step", "share", "growth", "memory", "loop")


def plan_of(measure: str) -> list[tuple[Measure, Case | str | loop.Load]]:
    """What a measure runs for each model size: a function and what it is run on."""
    plan: dict[str, list[tuple[Measure, Case | str | loop.Load]]] = {
        "sampling": [(beside.sampling, case) for case in SAMPLING],
        "update": [(beside.update, case) for case in UPDATE],
        "step": [(step.step, case) for case in STEP],
        "share": [(beside.share, case) for case in UPDATE],
        "growth": [(growth.growth, axis) for axis in growth.AXES],
        "memory": [
            *[(memory.update_memory, case) for case in UPDATE],
            *[(memory.step_memory, case) for case in STEP],
        ],
        "loop": [(loop.loop, load) for load in loop.LOADS],
    }
    return plan[measure]


def run_bench(
    measures: Sequence[str] | None = None,
    sizes: Sequence[str] | None = None,
    *,
    repeats: int = 5,
    quick: bool = False,
    device: str = "auto",
    watch: Watch = lambda done, total, note: None,
    keep: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """The document of ``bench.json``: the machine, and one row a measure, model size and case.

    All measures and the usual sizes unless some are named; ``quick`` takes the first size and the
    first case of each only. ``keep`` is given the document after every row. Raises ``UnknownName``
    for a measure or size that there is not.
    """
    there = place(Engine(device))
    chosen = measures or MEASURES
    shapes = sizes or (ON_GPU if there.type == "cuda" else USUAL)
    for kind, names, known in (("measure", chosen, MEASURES), ("size", shapes, SHAPES)):
        for name in names:
            if name not in known:
                raise UnknownName(kind, name, known)
    first = 1 if quick else None
    plan = [
        (size, measure, work, on)
        for number, size in enumerate(shapes[:first])
        for measure in chosen
        for work, on in plan_of(measure)[:first]
        if not (number and (on == "parameters" or measure == "loop"))  # of no size, or of all
    ]
    params = {size: sum(p.numel() for p in build(SHAPES[size]).parameters()) for size in shapes}
    found: dict[str, Any] = {"machine": machine(there), "repeats": repeats, "rows": []}
    for size, measure, work, on in plan:
        watch(len(found["rows"]), len(plan), f"{measure}, {on}, {size}")
        row = {"measure": measure, "case": str(on), "params": params[size]}
        found["rows"].append(row | work(size, on, repeats, device))
        keep(found)
    return found


def write_bench(folder: Path, found: dict[str, Any]) -> Path:
    """Write ``bench.json``, its table and its plots into a folder, which is made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "bench.md", markdown(found["rows"]))
    write_plot(folder, found)
    return atomic_write(folder / "bench.json", json.dumps(found, indent=1) + "\n")


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    on_gpu = device.type == "cuda"
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
    }
