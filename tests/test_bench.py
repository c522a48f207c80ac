"""The bench: both sides do the same work, and what it counts is what PyTorch counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from demur import bench
from demur.bench import cases, growth, loop, memory, plot
from demur.bench.cases import SHAPES, Case, Shape, groups, learner, operations, prompts, words
from demur.bench.growth import converse, fit
from demur.bench.step import asked, own_step, paid
from demur.cli import app
from demur.engine.tree import completion_logits, pack

TINY = Case(2, 2, 6, 3)


def test_operations_by_hand() -> None:
    # weights 4*2*2 + 3*2*3 = 34; tokens 3 + 2; pairs 6 in the prompt, 3 + 1 a reply
    forward = 2 * 34 * 5 + 4 * 2 * (6 + 2 * 4) + 2 * 2 * cases.VOCABULARY * 4
    assert operations(Shape(2, 1, 1, 3), Case(1, 2, 3, 2)) == 3 * forward
    assert operations(Shape(2, 1, 1, 3), Case(5, 2, 3, 2)) == 15 * forward


@pytest.mark.parametrize("size", ["1M", "9M"])
def test_operations_are_what_the_forward_pass_multiplies(size: str) -> None:
    case = Case(2, 3, 40, 9)
    policy = learner(SHAPES[size], True, "cpu")
    (packed,) = pack(groups(case), pad_id=0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        completion_logits(policy.model, packed)
    counts = counter.get_flop_counts()["Global"].items()
    counted = sum(n for op, n in counts if "attention" not in str(op))
    shape, own = SHAPES[size], case.completion - 1
    pairs = 40 * 41 / 2 + 3 * (own * 40 + own * (own + 1) / 2)
    attention = 2 * 4 * shape.layers * shape.hidden * pairs
    again = (
        2 * 2 * shape.hidden * cases.VOCABULARY * 2
    )  # a prompt's last logits, once and not thrice
    assert operations(shape, case) / 3 == pytest.approx(counted + attention + again)


def test_a_word_is_a_token() -> None:
    tokenizer, case = words(2048), Case(4, 2, 200, 3)
    for text, ids in zip(asked(case, 2048), prompts(case, 2048), strict=True):
        assert tuple(tokenizer(text)["input_ids"]) == ids
        assert tokenizer.decode(ids) == text
    assert paid("w2 w3 w4 w6") == 0.75 and paid("<end>") == paid("") == 0.0


def test_groups_share_a_prompt_and_are_not_flat() -> None:
    samples = groups(TINY)
    assert [s.group for s in samples] == [0, 0, 1, 1]
    assert samples[0].prompt_ids == samples[1].prompt_ids != samples[2].prompt_ids
    assert {len(s.completion_ids) for s in samples} == {3}
    assert sorted({a for s in samples for a in s.advantages}) == [-1.0, 1.0]


def test_turns_are_reused_and_learnt_as_one_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = learner(SHAPES["1M"], True, "cpu")
    seen: list[Any] = []
    monkeypatch.setattr(policy, "update", lambda samples, loss: seen.extend(samples))
    converse(policy, 3)
    assert len(seen) == 24
    assert sorted({len(s.prompt_ids) for s in seen}) == [24, 72, 120]
    assert policy._history.reused == 8 * (47 + 95)  # all but the last token that was drawn
    (packed,) = pack(seen, pad_id=0)
    assert packed.ids.numel() == 8 * (144 - 1)


def test_a_step_of_ours_is_a_whole_one() -> None:
    policy = learner(SHAPES["1M"], True, "cpu")
    own_step(policy, TINY, asked(TINY, cases.VOCABULARY), 0)
    assert policy.version == 1 and policy.optimiser is not None and policy.optimiser.taken == 1


def test_exponents() -> None:
    assert fit([1, 10, 100], [5, 5, 5]) == pytest.approx(0.0)
    assert fit([1, 10, 100], [1, 10, 100]) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated")  # TRL's own
def test_every_row_has_both_sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the bench extra is not installed")
    for name in ("SAMPLING", "UPDATE", "STEP"):
        monkeypatch.setattr(bench, name, (TINY,))
    monkeypatch.setattr(loop, "LOADS", (loop.Load("demur", 2, 6, 4),))
    for name, xs in (("GROUPS", (1, 2)), ("PROMPTS", (4, 8)), ("TURNS", (1, 2))):
        monkeypatch.setattr(growth, name, xs)
    monkeypatch.setattr(growth, "SIZES", ("1M",))
    monkeypatch.setattr(growth, "AXES", ("group", "turns"))
    seen: list[str] = []
    found = bench.run_bench(
        sizes=["1M"], repeats=1, watch=lambda done, total, note: seen.append(f"{done}/{total}")
    )
    assert seen == [f"{i}/9" for i in range(9)]
    rows = found["rows"]
    assert [row["measure"] for row in rows] == [
        "sampling", "update", "step", "share", "growth", "growth", "memory", "memory",
        "loop",
    ]  # fmt: skip
    params = sum(p.numel() for p in cases.build(SHAPES["1M"]).parameters())
    assert {row["params"] for row in rows if row["measure"] != "loop"} == {params}
    by = {row["measure"]: row for row in rows}
    for name in ("sampling", "update"):
        row = by[name]
        assert row["case"] == "2x2,6+3"
        assert row["ours"] > 0 and row["ratio"] == pytest.approx(row["ours"] / row["theirs"])
    for name in ("step", "memory"):  # less is better
        row = by[name]
        if row["ours"] and row["theirs"]:
            assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"])
        else:  # unmeasurably small is no figure
            assert name == "memory" and row["ratio"] is None
    assert by["step"]["against"] == "TRL GRPOTrainer" and by["step"]["ours"] > 0
    own = by["loop"]
    assert own["case"] == "demur, 6x4, 2 processes" and own["ours"] > 0 and own["tokens"] > 1
    assert own["ratio"] == pytest.approx(own["ours"] / loop.AIM)
    assert set(own["parts"]) == set(loop.PARTS) and min(own["parts"].values()) > 0
    assert sum(own["parts"].values()) == pytest.approx(1.0)
    assert by["share"]["ratio"] < 1, "no update does better than the bare product"
    assert [x for x, _ in by["growth"]["points"]] == [1.0, 2.0]
    path = bench.write_bench(tmp_path / "deep" / "er", found)
    assert json.loads(path.read_text()) == json.loads(json.dumps(found))
    table = (path.parent / "bench.md").read_text().splitlines()
    assert len(table) == 2 + len(rows) and "| TRL GRPOTrainer |" in "\n".join(table)
    page = (path.parent / "bench.html").read_text()
    assert "update 2x2,6+3" in page and "exponent" in page


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="the peak is read from /proc")
def test_memory_is_that_of_one_update() -> None:
    """A tree of long prompts needs less than padded rows, and both need something."""
    case = Case(4, 16, 200, 8)
    row = memory.update_memory("1M", case, 1, "cpu")
    assert row["unit"] == "MiB" and row["ours"] is not None and row["theirs"] is not None
    # the padded tokens of one pass, at the least one hidden state a layer
    assert row["theirs"] > row["ours"] > 2 and row["ratio"] > 1.5


def test_without_trl_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(bench.step.ConfigError, match=r"pip install 'demur\[bench\]'"):
        bench.step.step("1M", TINY, 1, "cpu")


def test_the_command_names_what_there_is(tmp_path: Path) -> None:
    runner = CliRunner()
    for flags, near in (
        (["--measure", "samplin"], "unknown measure 'samplin': did you mean 'sampling'?"),
        (["--size", "8M"], "unknown size '8M'"),
        (["--device", "cuda:77"], "cuda:77 is not there"),
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


def test_a_dash_for_what_was_not_measured() -> None:
    row = {"measure": "memory", "case": "c", "params": 1e6, "against": "x", "unit": "MiB",
           "ours": None, "theirs": 12.0, "ratio": None}  # fmt: skip
    assert plot.markdown([row]).splitlines()[-1] == "| memory | c | 1.0M | x | – | 12 | – | MiB |"
    assert not plot.figure([row]).data
