"""The tables of a study: every figure with its interval, a dash for what is undefined."""

from __future__ import annotations

import json
from pathlib import Path

from demur.report import write_markdown
from demur.report.markdown import study_markdown


def test_a_study_as_tables(tmp_path: Path) -> None:
    resist = {"mean": 0.8321, "low": 0.801, "high": 0.86, "n": 300}
    study = {
        "arms": {
            "seed": {"resist": resist, "auroc": {"mean": None, "low": None, "high": None, "n": 9}},
            "demur": {"resist": resist | {"mean": -0.05}, "anchor_budget": {"mean": 2739.0}},
        },
        "baselines": {"always_keep": {"resist": {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 300}}},
        "slices": {"demur": {"speaker": {"peers": {"resist": resist}}}},
        "verdict": {
            "sentences": ["demur: fine."],
            "criteria": [
                {"name": "x", "arm": "demur", "metric": "resist", "rule": ">= 0.75",
                 "value": None, "passed": False},
            ],
        },
        "run_seconds": {"demur": [201.4, 199.6]},
    }  # fmt: skip
    (tmp_path / "study.json").write_text(json.dumps(study))
    text = write_markdown(tmp_path).read_text()
    assert "| seed | .832 [.801, .860] |" in text
    assert "| demur | -.050 [.801, .860] |" in text
    assert "| _always_keep_ | 1.000 |" in text
    assert "| seed | – |" in text  # an undefined AUROC is no zero
    assert "| x | demur | resist | >= 0.75 | – | **no** |" in text
    assert "| demur | 2,739 |" in text
    assert "Held-out speaker `peers`" in text and "Held-out family" not in text
    assert "| demur | 201, 200 |" in text


def test_best_and_last_steps_and_the_ends_of_the_runs() -> None:
    points = [
        [{"step": s, "discernment": v} for s, v in ((40, 0.2), (80, 0.6), (120, 0.5))],
        [{"step": s, "discernment": v} for s, v in ((40, 0.2), (80, None), (120, 0.3))],
        [{"step": s, "discernment": v} for s, v in ((40, 0.5), (80, 0.6), (120, 0.1))],
    ]
    ends = [
        {
            "seed": 0,
            "first": {"label_accuracy": 0.75, "loss": 3.0},
            "last": {"label_accuracy": 0.5},
        },
        {"seed": 1, "first": {}, "last": {"label_accuracy": 0.25, "learned": 12.0}},
    ]
    study = {
        "arms": {},
        "baselines": {},
        "verdict": {"sentences": [], "criteria": []},
        "curves": {
            "all": [{"seed": i, "points": p} for i, p in enumerate(points)],
            "one": [{"seed": 0, "points": points[0]}],
        },
        "training": {"ttrl": ends},
    }
    text = study_markdown(study)
    assert "| all | discernment | .300 at 40 | .300 at 120 |" in text, (
        "80 is not known of all seeds"
    )
    assert "| one | discernment | .600 at 80 | .500 at 120 |" in text
    assert "| ttrl | label accuracy | .750, – | .500, .250 |" in text
    assert "| ttrl | learned | –, – | –, 12 |" in text and "loss" not in text
