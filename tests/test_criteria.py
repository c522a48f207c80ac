"""The criteria and the verdict, and the tables that show them."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from demur import console, criteria
from demur.criteria import FULL, QUICK, Criterion, verdict
from demur.measure import METRICS, Estimate
from demur.study import ARMS

Arms = dict[str, dict[str, dict[str, Any]]]
ALL = [
    pytest.param(c, id=f"{n}: {c.name}") for n, s in (("full", FULL), ("quick", QUICK)) for c in s
]
BASE = 0.5


def table(criterion: Criterion, value: float | None, seed: float | None = BASE) -> Arms:
    return {
        "seed": {criterion.metric: {"mean": seed}},
        criterion.arm: {criterion.metric: {"mean": value}},
    }


def bar(criterion: Criterion) -> float:
    return criterion.bound + (BASE if criterion.relative else 0.0)


@pytest.mark.parametrize("criterion", ALL)
def test_every_criterion_can_hold_and_can_fail(criterion: Criterion) -> None:
    assert criterion.metric in METRICS and criterion.arm in ARMS
    good = 1e-3 if criterion.sense == ">=" else -1e-3
    for shift, holds in ((good, True), (-good, False)):
        judged = criterion.judge(table(criterion, bar(criterion) + shift))
        assert judged is not None and judged["passed"] is holds
        assert judged["value"] == bar(criterion) + shift
        assert judged["rule"].startswith(criterion.sense)
        assert f"{abs(criterion.bound):g}" in judged["rule"]


@pytest.mark.parametrize("criterion", ALL)
def test_what_is_missing_fails(criterion: Criterion) -> None:
    absent: list[Arms] = [
        table(criterion, None),
        table(criterion, math.nan),
        {"seed": {criterion.metric: {"mean": BASE}}, criterion.arm: {}},
    ]
    if criterion.relative:
        absent.append(table(criterion, 1.0, seed=None))
        absent.append(table(criterion, 1.0 if criterion.sense == ">=" else -1.0, seed=math.nan))
    for arms in absent:
        judged = criterion.judge(arms)
        assert judged is not None and judged["passed"] is False
    assert criterion.judge({"seed": {}}) is None, "an arm that was not run is not judged"


def met(names: tuple[Criterion, ...]) -> Arms:
    """Arms that meet every criterion, and beat every baseline."""
    arms: Arms = {"seed": {c.metric: {"mean": BASE} for c in names}}
    for c in names:
        arms.setdefault(c.arm, {})[c.metric] = {"mean": bar(c)}
    arms["demur"] |= {"discernment": {"mean": 0.9}, "bayes_regret": {"mean": 0.01}}
    return arms


BASELINES: Arms = {
    name: {"discernment": {"mean": 0.1}, "bayes_regret": {"mean": 0.2}}
    for name in (*criteria.BEATEN, "bayes_oracle")
}


@pytest.mark.parametrize("names", [FULL, QUICK], ids=["full", "quick"])
def test_a_verdict_passes_only_if_everything_holds(names: tuple[Criterion, ...]) -> None:
    found = verdict(names, met(names), BASELINES)
    assert found["passed"] is True
    assert len(found["criteria"]) == len(names) + 2 * len(criteria.BEATEN)
    assert (
        found["sentences"][-1]
        == f"{len(found['criteria'])} of {len(found['criteria'])} criteria hold."
    )
    for c in names:
        arms = met(names)
        arms[c.arm] = {**arms[c.arm], c.metric: {"mean": None}}
        worse = verdict(names, arms, BASELINES)
        assert worse["passed"] is False, c.name
    for name in criteria.BEATEN:
        for metric, value in (("discernment", 0.95), ("bayes_regret", 0.005)):
            better = {**BASELINES, name: {**BASELINES[name], metric: {"mean": value}}}
            beaten = verdict(names, met(names), better)
            assert beaten["passed"] is False, (name, metric)
            failed = [c["name"] for c in beaten["criteria"] if not c["passed"]]
            assert failed == [f"demur beats {name.replace('_', '-')} on {metric.replace('_', ' ')}"]


def test_a_figure_that_is_missing_beats_no_baseline() -> None:
    for metric in ("discernment", "bayes_regret"):
        arms = met(QUICK)
        arms["demur"][metric] = {"mean": None}
        assert verdict(QUICK, arms, BASELINES)["passed"] is False, metric
        gone = {**BASELINES, "threshold": {**BASELINES["threshold"], metric: {"mean": None}}}
        assert verdict(QUICK, met(QUICK), gone)["passed"] is False, metric


def test_nothing_judged_is_nothing_passed() -> None:
    found = verdict(QUICK, {"seed": {}, "correctness": {}}, BASELINES)
    assert found["criteria"] == [] and found["passed"] is not True


@pytest.mark.parametrize(
    ("figures", "kind"),
    [
        ((0.02, 0.95, 0.9, 0.6), "a confident conformist"),
        ((0.02, 0.95, 0.6, 0.6), "a conformist"),
        ((0.8, 0.5, 0.6, 0.6), "a stubborn dissenter"),
        ((0.8, 0.9, 0.7, 0.7), "a discerning listener"),
        ((0.8, 0.9, 0.95, 0.7), "a discerning, miscalibrated one"),
        ((0.4, 0.6, 0.5, 0.5), "undecided"),
    ],
)
def test_characters(figures: tuple[float, ...], kind: str) -> None:
    names = ("resist", "accept", "confidence_mean", "accuracy")
    arms: Arms = {"arm": {m: {"mean": v} for m, v in zip(names, figures, strict=True)}}
    sentence = verdict((), arms, {})["sentences"][0]
    assert sentence.startswith(f"arm: {kind} (")
    for value in figures:
        assert f"{value:.2f}" in sentence
    arms["arm"]["resist"] = {"mean": None}
    assert not any("arm" in s for s in verdict((), arms, {})["sentences"])


# -- what is shown --------------------------------------------------------------------------------


def shown(renderable: object) -> str:
    page = Console(file=io.StringIO(), width=200)
    page.print(renderable)
    assert isinstance(page.file, io.StringIO)
    return page.file.getvalue()


def test_the_results_table_shows_every_figure_and_a_dash_for_none() -> None:
    arms = {"my[b]arm": {"resist": {"mean": 0.1234}, "accept": {"mean": None}}}
    page = shown(console.results_table(arms, {"always_keep": {"resist": {"mean": 1.0}}}, "T"))
    assert "my[b]arm" in page and ".123" in page and "1.000" in page and "always_keep" in page
    line = next(line for line in page.splitlines() if "my[b]arm" in line)
    narrow = console.out.width < console.WIDE
    assert line.count("–") == len(console.NARROW if narrow else console.SHOWN) - 1
    assert "nan" not in page and "None" not in page


def test_the_verdict_table_says_what_holds() -> None:
    judged = verdict(QUICK, {**met(QUICK), "demur": {}}, BASELINES)["criteria"]
    page = shown(console.verdict_table(judged))
    assert "demur resists" in page and ">= 0.55" in page
    rows = [line for line in page.splitlines() if "demur resists" in line]
    assert rows and rows[0].rstrip(" │").endswith("no") and "–" in rows[0]
    assert [line for line in page.splitlines() if line.rstrip(" │").endswith("yes")]


def test_the_study_display_speaks_in_lines_or_not_at_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = {"resist": Estimate(0.25, 0.2, 0.3, 10)}
    for quiet in (False, True):
        with console.StudyDisplay(2, quiet=quiet) as display:
            display.phase("measuring [the] seed")
            display.begin("demur", 0, 80)
            display.step("demur", 0, {"step": 40, "seconds": 3.2, "reward": 0.5, "loss": None})
            display.step("demur", 0, {"step": 41, "seconds": 3.3, "reward": 0.6})
            display.done("demur", 0, metrics)
        out, err = capsys.readouterr()
        assert out == ""
        if quiet:
            assert err == ""
        else:
            assert err.splitlines() == [
                "measuring [the] seed",
                "demur, seed 0: 80 steps",
                "  demur, seed 0, step 40: reward .500 (3 s)",
                "demur 0: resist .250",
            ]


def test_bars_and_spinners_leave_other_files_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with console.bar() as progress, console.spinner("loading") as say:
        progress.update(progress.add_task("a [b] c", total=2, note="[x]"), completed=1)
        say("half [way]")
    assert capsys.readouterr() == ("", "")
