"""Rows that a run kept, as TRL's datasets: layouts, card, and TRL's own trainers on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from demur.commands.skills import export
from demur.config import load_recipe
from demur.errors import ConfigError, RunFolderError, UnknownName
from demur.exports import (
    CANARY,
    FORMATS,
    as_dataset,
    dataset_card,
    export_trl,
    label_accuracy,
    read_kept,
    used,
)
from demur.games.phrases import object_to
from demur.games.rounds import draw_of
from demur.policies.local import LocalPolicy
from demur.reply import parse, render
from demur.runlog import RunFolder
from demur.schema import Reply
from demur.train import train
from demur.world.seed import SEED_FOLDER

SMALL = ("stages.0.dialogues=500", "stages.0.steps=1", "stages.0.batch=4", "tasks.pool=200")


def played(folder: Path, recipe: str) -> Path:
    made = load_recipe(recipe, SMALL)
    run = RunFolder(folder, {"seed": 3, "model": "/somewhere/seed", "recipe": made.model_dump()})
    train(made, LocalPolicy.from_folder(SEED_FOLDER), run, seed=3)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that kept balanced pairs of the seed model's replies."""
    return played(tmp_path_factory.mktemp("runs") / "pairs", "offline_pairs")


def rows_in(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "data" / "train.parquet").to_pylist()
    return found


def test_every_layout_holds_what_was_kept(pairs: Path, tmp_path: Path) -> None:
    kept = read_kept(pairs)
    assert len(kept) > 10
    for layout in FORMATS:
        out = tmp_path / layout
        assert export_trl(pairs, out, layout) == len(rows_in(out))
        assert {p.name for p in out.iterdir()} == {"data", "README.md"}
    dpo, kto, sft, grpo = (rows_in(tmp_path / f"trl-{k}") for k in ("dpo", "kto", "sft", "grpo"))
    assert len(dpo) == len(sft) == len(kept) and len(kto) == 2 * len(kept)
    for row, source in zip(dpo, kept, strict=True):
        assert row["prompt"] == json.loads(source["dialogue"])
        assert row["chosen"] == [{"role": "assistant", "content": source["chosen"]}]
        assert row["rejected"] == [{"role": "assistant", "content": source["rejected"]}]
        assert (row["truth"], row["claim_right"]) == (source["truth"], source["claim_right"])
    assert [r["completion"] for r in kto if r["label"]] == [r["chosen"] for r in dpo]
    assert [r["completion"] for r in kto if not r["label"]] == [r["rejected"] for r in dpo]
    prompts = [json.dumps(r["prompt"]) for r in grpo]
    assert len(set(prompts)) == len(prompts)
    assert set(prompts) == {json.dumps(r["prompt"]) for r in dpo}
    assert {"completion", "chosen"}.isdisjoint(grpo[0])
    for row in grpo:
        task, claim = draw_of(row["exchange"])
        assert claim is not None
        dialogue = object_to(task, claim)
        assert row["prompt"] == [{"role": m.role, "content": m.content} for m in dialogue]
        about = (task.id, task.question, task.truth, task.grader, task.family)
        names = ("task_id", "question", "truth", "grader", "family")
        assert about == tuple(row[name] for name in names)
        assert (claim.answer, claim.right) == (row["claim"], row["claim_right"])
    later = ("grader", "family", "exchange")
    early = [{k: v for k, v in row.items() if k not in later} for row in kept]
    assert {*as_dataset(early, "trl-grpo")[0]} == {*grpo[0]} - {*later}, "of an earlier version"


def test_the_card_says_how_they_were_made(pairs: Path, tmp_path: Path) -> None:
    export_trl(pairs, tmp_path / "a", "trl-dpo")
    export_trl(pairs, tmp_path / "b", "trl-kto")
    card, other = ((tmp_path / name / "README.md").read_text() for name in ("a", "b"))
    kept = read_kept(pairs)
    share, known = label_accuracy(kept)
    assert share == 1.0 and known == len(kept), "truth was the anchor"
    assert f"| rows | {len(kept):,} |" in card and f"100.0% of {known:,} with known truth" in card
    assert "recipe `offline_pairs`, seed 3" in card and "| anchor | truth |" in card
    assert "| model | `seed`" in card and "/somewhere" not in card
    assert "data_files: data/train.parquet" in card
    canary = [text.split(CANARY)[1].split("`")[0] for text in (card, other)]
    assert canary[0] == canary[1] and len(canary[0].strip()) == 36
    wrong = [row | {"truth": "nothing"} for row in kept[:3]] + kept[3:6]
    assert label_accuracy(wrong) == (0.5, 6)
    spelt = [kept[0] | {"truth": "1,200", "chosen": render("1200", 1.0), "grader": grader}
             for grader in ("number", "exact")]  # fmt: skip
    assert label_accuracy(spelt) == (0.5, 2), "as the task compares answers"


def test_a_card_is_of_what_was_exported(pairs: Path, tmp_path: Path) -> None:
    kept = read_kept(pairs)
    lone = kept[0] | {"rejected": None, "truth": "nothing"}
    mixed = [lone, *kept, kept[0]]
    assert used(mixed, "trl-dpo") == used(mixed, "trl-kto") == [*kept, kept[0]]
    assert used(mixed, "trl-sft") == mixed
    once = used(mixed, "trl-grpo")
    assert [row["dialogue"] for row in once] == list(dict.fromkeys(r["dialogue"] for r in mixed))
    assert once[0] == lone, "the first of those that say the same"
    settings = {"recipe": {"stages": [{"kind": "offline", "keep": "pairs", "anchor": "truth"}]}}
    card = dataset_card(used(mixed, "trl-dpo"), 9, "trl-dpo", settings)
    count = len(kept) + 1
    assert f"better, 100.0% of {count:,} with known truth are right" in card
    assert f"kept as worse, 0.0% of {count:,}" in card
    erring = [row | {"truth": answer_in(row["rejected"])} for row in kept[:1]]
    card = dataset_card([*kept[1:], *erring], 9, "trl-dpo", settings)
    worse = 1 / len(kept)
    assert f"kept as worse, {worse:.1%} of" in card
    card = dataset_card(once, 9, "trl-grpo", settings)
    assert f"the truth of {len(once):,} dialogues is known" in card and "are right" not in card


def answer_in(text: str) -> str:
    said = parse(text)
    assert isinstance(said, Reply)
    return said.answer


def test_pairs_by_certainty_are_not_called_right_and_wrong(tmp_path: Path) -> None:
    run = played(tmp_path / "sure", "rlsf")
    assert export_trl(run, tmp_path / "dpo", "trl-dpo") > 10
    card = (tmp_path / "dpo" / "README.md").read_text()
    assert "| anchor | none: how sure the policy itself was (disparity of its tokens) |" in card
    with pytest.raises(RunFolderError, match="neither reply of one is right or wrong"):
        export_trl(run, tmp_path / "kto", "trl-kto")
    assert not (tmp_path / "kto").exists()


def test_what_cannot_be_exported_is_one_sentence(pairs: Path, tmp_path: Path) -> None:
    right = played(tmp_path / "right", "offline_supervised")
    assert export_trl(right, tmp_path / "sft", "trl-sft") > 10
    for layout in ("trl-dpo", "trl-kto"):
        with pytest.raises(RunFolderError, match="kept no pair of a right and a wrong reply"):
            export_trl(right, tmp_path / layout, layout)
        assert not (tmp_path / layout).exists()
    with pytest.raises(RunFolderError, match=r"kept nothing of its play.*offline_pairs"):
        RunFolder(tmp_path / "other", {"x": 1})
        export_trl(tmp_path / "other", tmp_path / "x", "trl-dpo")
    with pytest.raises(RunFolderError, match="holds no run"):
        export_trl(tmp_path / "nowhere", tmp_path / "x", "trl-dpo")
    with pytest.raises(ConfigError, match="not empty"):
        export_trl(pairs, right, "trl-dpo")
    with pytest.raises(UnknownName, match="did you mean 'trl-dpo'"):
        export(pairs, tmp_path / "x", "trl-dop")
    assert not (tmp_path / "x").exists()
    (right / "offline-0.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(RunFolderError, match="cannot be read"):
        export_trl(right, tmp_path / "x", "trl-sft")
    assert as_dataset([], "trl-dpo") == []


TRAINERS = {
    "trl-sft": ("SFTTrainer", "SFTConfig", {}),
    "trl-dpo": ("DPOTrainer", "DPOConfig", {}),
    "trl-kto": ("KTOTrainer", "KTOConfig", {"per_device_train_batch_size": 4}),
    "trl-grpo": (
        "GRPOTrainer",
        "GRPOConfig",
        {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 24},
    ),
}


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_trls_own_trainers_learn_from_them(pairs: Path, tmp_path: Path, layout: str) -> None:
    trl = pytest.importorskip("trl", reason="needs the extra: pip install 'demur[trl]'")
    datasets = pytest.importorskip("datasets", reason="needs the extra: pip install 'demur[trl]'")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export_trl(pairs, tmp_path / "data", layout)
    rows = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "data" / "data" / "train.parquet"),
        cache_dir=str(tmp_path / "cache"), split="train",
    )  # fmt: skip
    trainer_name, config_name, more = TRAINERS[layout]
    settings = {
        "output_dir": str(tmp_path / "out"), "max_steps": 3, "per_device_train_batch_size": 2,
        "learning_rate": 1e-3, "report_to": "none", "use_cpu": True, "save_strategy": "no",
        "bf16": False, "logging_steps": 1, "disable_tqdm": True, "seed": 1,
    } | more  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(SEED_FOLDER)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    given: dict[str, Any] = {"model": model, "train_dataset": rows}
    if layout == "trl-grpo":
        given["reward_funcs"] = _rewarded
    trainer = getattr(trl, trainer_name)(
        args=getattr(trl, config_name)(**settings),
        processing_class=AutoTokenizer.from_pretrained(SEED_FOLDER),
        **given,
    )
    trainer.train()
    logged = [line for line in trainer.state.log_history if "loss" in line]
    assert len(logged) == 3 and all(line["loss"] == line["loss"] for line in logged)
    moved = [n for n, p in trainer.model.named_parameters() if not p.detach().equal(before[n])]
    assert moved, "it has learned from them"


def _rewarded(completions: list[Any], truth: list[str], **_: Any) -> list[float]:
    """A reward of GRPO: whether the truth stands in the answer."""
    return [
        float(f"<answer>{t}</answer>" in said[0]["content"])
        for said, t in zip(completions, truth, strict=True)
    ]
