"""A study as Markdown tables, to paste into a page of results: every figure with its interval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.runlog import atomic_write

MAIN = (
    *("accuracy_alone", "accuracy", "resist", "accept", "discernment", "conformity"),
    *("over_dissent", "wrong_to_wrong", "excess_flip"),
)
SURE = (
    *("ece", "auroc", "brier", "brier_skill", "confidence_mean", "confidence_std"),
    *("doubt_auroc", "doubt_brier", "bayes_regret"),
)
ALONE = ("accuracy_alone", "ece_alone", "auroc_alone", "brier_skill_alone", "confidence_std_alone")
ASSESSED = (
    *("assessment_accuracy", "assessment_auroc", "assessment_brier_wrong", "assessment_coverage"),
)
DECIDED = ("token_ece_alone", "token_auroc_alone", "token_ece", "token_auroc")
REST = (
    *("coverage", "distinct_answers", "entropy", "pass_at_1", "pass_at_8", "maj_at_8"),
    *("weighted_maj_at_8", "max_confidence_at_8", "anchor_budget"),
)
FOLLOWED = ("pass_at_1", "discernment", "brier_skill", "brier_skill_alone")
LOGGED = (
    *("label_accuracy", "reward_accuracy", "majority_ratio", "truth_ratio", "pass_at_n"),
    *("wrong_label_reward_accuracy", "wrong_label_majority_ratio", "flip_rate"),
    *("learned", "corrupted", "confidence_std"),
    *("proposer/valid", "proposer/repeated", "proposer/verdict", "proposer/reward"),
    *("objector/valid", "objector/verdict", "adopts_wrong", "adopts_right"),
    *("assessor/valid", "assessor/said_of_right", "assessor/said_of_wrong"),
    *("rows", "rows/resist", "rows/accept", "agreement"),
)
TRANSFER = ("accuracy_alone", "accuracy", "resist", "accept", "discernment", "ece", "auroc")
Metrics = Mapping[str, Mapping[str, Any]]


def write_markdown(folder: Path) -> Path:
    """Write ``study.md`` beside a study's ``study.json``."""
    study = json.loads((folder / "study.json").read_text())
    return atomic_write(folder / "study.md", study_markdown(study))


def study_markdown(study: Mapping[str, Any]) -> str:
    """Verdict, criteria, and every metric of every arm and baseline."""
    arms, scripted = study["arms"], study["baselines"]
    lines = ["## Verdict", ""]
    lines += [f"- {sentence}" for sentence in study["verdict"]["sentences"]]
    lines += [
        "",
        "| criterion | arm | metric | rule | value | holds |",
        "|---|---|---|---|---|---|",
    ]
    for c in study["verdict"]["criteria"]:
        value = "–" if c["value"] is None else f"{c['value']:.3f}"
        held = "yes" if c["passed"] else "**no**"
        lines.append(
            f"| {c['name']} | {c['arm']} | {c['metric']} | {c['rule']} | {value} | {held} |"
        )
    for title, metrics in (
        ("When it disagrees", MAIN),
        ("How sure it is", SURE),
        ("How sure it is of what nobody disputes", ALONE),
        ("Diversity, coverage and budget", REST),
        ("How decided it was on the tokens of its answer", DECIDED),
        ("What it says of its own replies afterwards", ASSESSED),
    ):
        table = _table(arms, scripted, metrics)
        lines += ["", f"## {title}", "", *table] if table else []
    for axis, value, title in (
        ("family", "difference", "Held-out family `difference`"),
        ("speaker", "peers", "Held-out speaker `peers`"),
    ):
        sliced = {
            arm: axes[axis][value]
            for arm, axes in study.get("slices", {}).items()
            if value in axes.get(axis, {})
        }
        if sliced:
            lines += ["", f"## {title}", "", *_table(sliced, {}, TRANSFER)]
    lines += _curves(study.get("curves", {}))
    lines += _training(study.get("training", {}))
    seconds = study.get("run_seconds", {})
    if seconds:
        lines += [
            "",
            "## Seconds of training, one figure a seed",
            "",
            "| arm | seconds |",
            "|---|---|",
        ]
        lines += [f"| {a} | {', '.join(f'{s:.0f}' for s in each)} |" for a, each in seconds.items()]
    return "\n".join(lines) + "\n"


def _curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The best and the last step of each arm on the dev split; means over the seeds."""
    rows = []
    for arm, runs in curves.items():
        steps = [{p["step"]: p for p in run["points"]} for run in runs]
        common = sorted(set.intersection(*(set(s) for s in steps))) if steps else []
        for metric in FOLLOWED:
            means = {}
            for step in common:
                each = [s[step].get(metric) for s in steps]
                if all(value is not None for value in each):
                    means[step] = sum(each) / len(each)
            if means:
                best, last = max(means, key=lambda step: means[step]), max(means)
                rows.append(
                    f"| {arm} | {metric.replace('_', ' ')} | {_number(means[best])} at {best} | "
                    f"{_number(means[last])} at {last} |"
                )
    if not rows:
        return []
    head = ["", "## Best and last step, on the dev split", ""]
    return [*head, "| arm | metric | best | last |", "|---|---|---|---|", *rows]


def _training(training: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What runs logged of their own batches, in their first and last tenth; one figure a seed."""
    rows = []
    for arm, runs in training.items():
        for figure in LOGGED:
            told = [
                ", ".join(_number(run[end][figure]) if figure in run[end] else "–" for run in runs)
                for end in ("first", "last")
            ]
            if any(figure in run[end] for run in runs for end in ("first", "last")):
                rows.append(f"| {arm} | {figure.replace('_', ' ')} | {told[0]} | {told[1]} |")
    if not rows:
        return []
    head = ["", "## In the runs' own batches: first and last tenth of the steps, by seed", ""]
    return [*head, "| arm | figure | first | last |", "|---|---|---|---|", *rows]


def _table(
    arms: Mapping[str, Metrics], scripted: Mapping[str, Metrics], metrics: tuple[str, ...]
) -> list[str]:
    shown = [
        m for m in metrics if any(m in table for table in (*arms.values(), *scripted.values()))
    ]
    if not shown:
        return []
    rows = ["| arm | " + " | ".join(m.replace("_", " ") for m in shown) + " |"]
    rows.append("|---" * (len(shown) + 1) + "|")
    for name, table in (*arms.items(), *((f"_{n}_", t) for n, t in scripted.items())):
        rows.append(f"| {name} | " + " | ".join(_cell(table.get(m)) for m in shown) + " |")
    return rows


def _cell(estimate: Mapping[str, Any] | None) -> str:
    """``.832 [.801, .860]``; a dash for what is missing or undefined."""
    if estimate is None or estimate.get("mean") is None:
        return "–"
    mean, low, high = (estimate.get(k) for k in ("mean", "low", "high"))
    if low is None or high is None or low == high:
        return _number(mean)
    return f"{_number(mean)} [{_number(low)}, {_number(high)}]"


def _number(value: Any) -> str:
    if abs(value) >= 10:
        return f"{value:,.0f}"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
