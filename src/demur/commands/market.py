"""``demur evaluate --suite market``: how candid a seller is, and what its judge is worth."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from demur.errors import ConfigError


def evaluate_market(
    model: str,
    out: Path,
    *,
    endpoint: str,
    judge: str,
    judge_endpoint: str,
    judge_style: str,
    n: int | None,
    max_tokens: int,
    device: str,
    seed: int,
    resume: bool,
    quiet: bool,
) -> None:
    """Measure one seller, exactly or by a judge; writes ``evaluation.json``."""
    from rich.table import Table

    from demur import console
    from demur.engine.options import Engine
    from demur.errors import UnknownName
    from demur.games.phrases import Style
    from demur.policies.local import LocalPolicy
    from demur.results import as_json
    from demur.rubric import try_judge
    from demur.runlog import RunFolder
    from demur.sellers import OFFERS, judged_figures, sell_figures
    from demur.supplies import other_policy

    if judge_style not in get_args(Style):
        raise UnknownName("style", judge_style, get_args(Style))
    if endpoint and not judge:
        raise ConfigError(
            "a seller behind an endpoint speaks in its own words: name who reads them, with "
            "--judge MODEL (and --judge-endpoint URL)"
        )
    started, engine, n = time.perf_counter(), Engine(device), n or OFFERS
    policy = other_policy(model, endpoint, engine)
    reader = other_policy(judge, judge_endpoint, engine) if judge else None
    config = {
        "suite": "market", "model": model, "endpoint": endpoint, "judge": judge,
        "judge_endpoint": judge_endpoint, "judge_style": judge_style, "n": n,
        "max_tokens": max_tokens, "seed": seed,
    }  # fmt: skip
    run = RunFolder(out, config, resume=resume)
    trust: dict[str, object] | None = None
    with console.spinner("selling", quiet=quiet) as say:
        if reader is None:
            assert isinstance(policy, LocalPolicy)
            figures = sell_figures(policy, offers=n, seed=seed)
        else:
            style: Style = "brief" if judge_style == "brief" else "plain"
            say("trying the judge on utterances of known form")
            trust = asdict(try_judge(reader, style=style, seed=seed))
            say("selling")
            figures = judged_figures(
                policy, reader, offers=n, style=style, max_tokens=max_tokens, seed=seed
            )
    table = Table("figure", "mean", "95% interval", "n")
    for name, e in figures.items():
        if e.n:
            interval = f"{_shown(e.low)} to {_shown(e.high)}"
            table.add_row(name, _shown(e.mean), interval, str(e.n))
    console.out.print(table)
    if trust is not None:
        console.out.print(
            f"The judge tells {trust['coverage']:.3f} of {trust['n']} utterances of known form, "
            f"{_shown(trust['share'])} of these rightly (kappa {_shown(trust['kappa'])}).",
            highlight=False,
        )
    found = {
        "arms": {policy.name: as_json(figures)},
        "baselines": {},
        "verdict": {},
        "seconds": time.perf_counter() - started,
        "config": config,
        "judge": trust,
    }
    path = run.write_json("evaluation.json", found)
    console.out.print(f"Figures: {path}", highlight=False, markup=False, soft_wrap=True)


def _shown(value: object) -> str:
    """A figure, or that it is not defined."""
    return f"{value:.3f}" if isinstance(value, float) and value == value else "undefined"
