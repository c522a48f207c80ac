"""The anchor's figures: which arms are placed and joined, and when there is nothing to draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demur.report import anchors, looks
from demur.report.data import Arm, Estimate
from demur.report.page import write_report

X = "truth@anchor.reliability="


def arm(name: str, j: float, accuracy: float | None, budget: float | None) -> Arm:
    found = Arm(name, {"discernment": Estimate(j, j - 0.05, j + 0.05, 100, ())})
    found.anchor_accuracy = accuracy
    if budget is not None:
        found.metrics["anchor_budget"] = Estimate(budget, None, None, 1, ())
    return found


def figures(*found: Arm) -> dict[str, Any]:
    arms = {a.name: a for a in found}
    return anchors.worth(arms, looks.styles(list(arms), frozenset(), None))


CURVE = (
    arm("seed", 0.2, None, 0.0),
    arm("truth", 0.9, 1.0, 3000.0),
    arm(f"{X}0.5", 0.25, 0.5, 3000.0),
    arm(f"{X}0.8", 0.85, 0.79, 3010.0),
    arm("truth@tasks.pool=9", 0.4, 1.0, 36.0),
    arm("truth@learner.anchor=majority", 0.0, 0.67, 0.0),
)


def traces(figure: dict[str, Any], mode: str) -> list[dict[str, Any]]:
    return [t for t in figure["data"] if t["mode"] == mode]


def test_a_curve_of_one_setting_is_joined_and_named_by_its_values() -> None:
    found = figures(*CURVE)["accuracy"]
    [line] = traces(found, "lines")
    assert (list(line["x"]), list(line["y"])) == ([0.5, 0.79, 1.0], [0.25, 0.85, 0.9])
    marks = {t["text"][0]: (t["x"][0], t["y"][0]) for t in traces(found, "markers+text")}
    assert marks == {"truth": (1.0, 0.9), "0.5": (0.5, 0.25), "0.8": (0.79, 0.85),
                     "majority": (0.67, 0.0)}  # fmt: skip
    [shape] = found["layout"]["shapes"]
    assert shape["y0"] == shape["y1"] == 0.2, "the untrained model's discernment"


def test_a_setting_is_drawn_on_the_axis_that_it_moves() -> None:
    found = figures(*CURVE)["budget"]
    [line] = traces(found, "lines")
    assert list(line["x"]) == [36.0, 3000.0]
    assert {t["text"][0] for t in traces(found, "markers+text")} == {"truth", "9"}
    assert found["layout"]["xaxis"]["type"] == "log"


def test_two_points_are_no_curve() -> None:
    assert figures(*CURVE[:3]) == {}


def test_a_page_shows_them_only_where_verdicts_were_measured(tmp_path: Path) -> None:
    def study(folder: Path, training: dict[str, Any]) -> str:
        folder.mkdir()
        names = [a.name for a in CURVE]
        table = {
            a.name: {"discernment": {"mean": a.metrics["discernment"].mean, "low": 0.1, "high": 0.9,
                                     "n": 9}}
            for a in CURVE
        }  # fmt: skip
        whole = {"arms": table, "baselines": {}, "verdict": {}, "seconds": 1.0,
                 "config": {"arms": names}, "training": training}  # fmt: skip
        (folder / "study.json").write_text(json.dumps(whole))
        (folder / "config.toml").write_text("seeds = 1\n")
        return write_report(folder).read_text()

    measured = {
        a.name: [{"seed": 0, "first": {"reward_accuracy": a.anchor_accuracy}, "last": {}}]
        for a in CURVE
        if a.anchor_accuracy is not None
    }
    shown = study(tmp_path / "with", measured)
    assert "What was the anchor worth?" in shown and 'id="plot-anchors-accuracy"' in shown
    assert "plot-anchors-budget" not in shown
    assert "What was the anchor worth?" not in study(tmp_path / "without", {})
