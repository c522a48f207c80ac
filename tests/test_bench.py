"""The bench: both sides do the same work, and what it counts is what PyTorch counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from demur import bench
from demur.bench import SHAPES, Case, Shape, operations
from demur.cli import app
from demur.engine.tree import completion_logits, pack

TINY = Case(2, 2, 6, 3)


def test_operations_by_hand() -> None:
    # weights 4*2*2 + 3*2*3 = 34; tokens 3 + 2; pairs 6 in the prompt, 3 + 1 a reply
    forward = 2 * 34 * 5 + 4 * 2 * (6 + 2 * 4) + 2 * 2 * bench.VOCABULARY * 4
    assert operations(Shape(2, 1, 1, 3), Case(1, 2, 3, 2)) == 3 * forward
    assert operations(Shape(2, 1, 1, 3), Case(5, 2, 3, 2)) == 15 * forward


@pytest.mark.parametrize("size", SHAPES)
def test_operations_are_what_the_forward_pass_multiplies(size: str) -> None:
    model, case = bench.build(SHAPES[size]), Case(1, 1, 40, 9)
    (packed,) = pack(bench.groups(case), pad_id=0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        completion_logits(model, packed)
    counted = sum(
        n for op, n in counter.get_flop_counts()["Global"].items() if "attention" not in str(op)
    )
    tokens = case.prompt + case.completion - 1
    spare = 2 * SHAPES[size].hidden * bench.VOCABULARY * (tokens - case.completion)  # unread logits
    pairs = tokens * (tokens + 1) / 2
    attention = 4 * SHAPES[size].layers * SHAPES[size].hidden * pairs
    assert operations(SHAPES[size], case) / 3 == pytest.approx(counted - spare + attention)


def test_every_row_has_both_sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "SAMPLING", (TINY,))
    monkeypatch.setattr(bench, "UPDATE", (TINY,))
    seen: list[str] = []
    found = bench.run_bench(
        sizes=["1M"], repeats=1, watch=lambda done, total, note: seen.append(f"{done}/{total}")
    )
    assert seen == ["0/4", "1/4", "2/4", "3/4"]
    rows = {row["measure"]: row for row in found["rows"]}
    assert list(rows) == ["sampling", "update", "share", "memory"]
    params = sum(p.numel() for p in bench.build(SHAPES["1M"]).parameters())
    for row in rows.values():
        assert row["case"] == "2x2, 6+3" and row["params"] == params
    for name in ("sampling", "update", "share"):
        row = rows[name]
        assert row["ours"] > 0 and row["ratio"] == pytest.approx(row["ours"] / row["theirs"])
    assert rows["share"]["ratio"] < 1, "no update does better than the bare product"
    less = rows["memory"]  # smaller is better there, and unmeasurably small is no figure
    if less["ours"] and less["theirs"]:
        assert less["ratio"] == pytest.approx(less["theirs"] / less["ours"])
    else:
        assert less["ratio"] is None
    path = bench.write_bench(tmp_path / "deep" / "er", found)
    assert json.loads(path.read_text()) == json.loads(json.dumps(found))


def test_groups_share_a_prompt_and_are_not_flat() -> None:
    samples = bench.groups(TINY)
    assert [s.group for s in samples] == [0, 0, 1, 1]
    assert samples[0].prompt_ids == samples[1].prompt_ids != samples[2].prompt_ids
    assert {len(s.completion_ids) for s in samples} == {3}
    assert sorted({a for s in samples for a in s.advantages}) == [-1.0, 1.0]


def test_the_command_names_what_there_is(tmp_path: Path) -> None:
    runner = CliRunner()
    for flags, near in (
        (["--measure", "samplin"], "unknown measure 'samplin': did you mean 'sampling'?"),
        (["--size", "8M"], "unknown size '8M'"),
    ):
        result = runner.invoke(app, ["bench", "--out", str(tmp_path / "b"), *flags])
        assert result.exit_code != 0 and near in str(result.exception)
        assert not (tmp_path / "b").exists()


def test_the_command_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "UPDATE", (TINY, Case(9, 9, 9, 9)))
    flags = ["--measure", "update", "--quick", "--repeats", "1", "--quiet"]
    result = CliRunner().invoke(app, ["bench", "--out", str(tmp_path), *flags])
    assert result.exit_code == 0, result.output
    assert "2x2," in result.output and "padded" in result.output
    (row,) = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert row["unit"] == "samples/s" and row["against"] == "padded rows"
