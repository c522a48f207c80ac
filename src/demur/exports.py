"""What a run kept of its play, as datasets that TRL trains on, each with a card.

A stage that plays once (``kind = "offline"``) leaves the rows that it learned from; here they are
turned into TRL's conversational layouts, one Parquet file and a README.md a folder:

| format | trainer | columns |
|---|---|---|
| trl-sft | SFTTrainer | prompt, completion |
| trl-dpo | DPOTrainer | prompt, chosen, rejected |
| trl-kto | KTOTrainer | prompt, completion, label |
| trl-grpo | GRPOTrainer | prompt; truth, grader, exchange and more for its rewards |

``demur.integrations.trl`` has the rewards for the last one.
"""

from __future__ import annotations

import io
import json
import shutil
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from demur import __version__
from demur.errors import ConfigError, RunFolderError, UnknownName
from demur.reply import parse
from demur.runlog import CONFIG
from demur.schema import Reply, Row
from demur.tasks.grader import same

FORMATS = ("trl-grpo", "trl-dpo", "trl-kto", "trl-sft")
CANARY = "demur-export canary"
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TYPES = {
    "prompt": _MESSAGES,
    "completion": _MESSAGES,
    "chosen": _MESSAGES,
    "rejected": _MESSAGES,
    "label": pa.bool_(),
    "task_id": pa.string(),
    "truth": pa.string(),
    "claim": pa.string(),
    "claim_right": pa.bool_(),
    "side": pa.string(),
    "question": pa.string(),
    "grader": pa.string(),
    "family": pa.string(),
    "exchange": pa.string(),
}
_JUDGED = ("question", "grader", "family", "exchange")
"""Columns for rewards alone, which runs of earlier versions may not have kept."""


def export_trl(run: Path, out: Path, layout: str) -> int:
    """Write one dataset and its card into ``out``; returns the number of rows.

    The folder is there whole or not at all. Raises ``RunFolderError`` for a run that kept nothing
    of that kind, ``UnknownName`` and ``ConfigError``.
    """
    if layout not in FORMATS:
        raise UnknownName("format", layout, FORMATS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already and not empty; name another --out")
    kept, settings = read_kept(run), _settings(run)
    rows = as_dataset(kept, layout)
    if not rows:
        raise RunFolderError(
            f"the run in {run} kept no pair of a right and a wrong reply, which {layout} needs: "
            "export trl-sft, or play with --set stages.0.keep='pairs'"
        )
    table = pa.Table.from_pylist(rows, schema=pa.schema([(name, _TYPES[name]) for name in rows[0]]))
    card = dataset_card(kept, len(rows), layout, settings)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    beside = out.parent / f".{out.name}.{uuid.uuid4().hex}"
    try:
        (beside / "data").mkdir(parents=True)
        (beside / "data" / "train.parquet").write_bytes(buffer.getvalue())
        (beside / "README.md").write_text(card, encoding="utf-8")
        if out.exists():
            out.rmdir()
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return len(rows)


def read_kept(run: Path) -> list[Row]:
    """The rows that the offline stages of a run kept; raises ``RunFolderError``."""
    if not (run / CONFIG).is_file():
        raise RunFolderError(f"{run} holds no run; name the folder that demur train wrote")
    files = sorted(run.glob("offline-*.parquet"))
    if not files:
        raise RunFolderError(
            f"the run in {run} kept nothing of its play, so there is nothing to export: train one "
            "of the recipes offline_* (see demur recipes)"
        )
    try:
        return [row for file in files for row in pq.read_table(file).to_pylist()]
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"the rows kept in {run} cannot be read ({error})") from error


def as_dataset(kept: Sequence[Row], layout: str) -> list[dict[str, Any]]:
    """The rows of one layout; a dialogue is in the prompts of ``trl-grpo`` once."""
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    judged = [name for name in _JUDGED if all(name in row for row in kept)]
    for row in kept:
        prompt = json.loads(row["dialogue"])
        about = {name: row[name] for name in ("task_id", "truth", "claim", "claim_right", "side")}
        better, worse = _said(row["chosen"]), _said(row["rejected"])
        if layout == "trl-sft":
            rows.append({"prompt": prompt, "completion": better, **about})
        elif layout == "trl-grpo":
            if row["dialogue"] not in seen:
                rows.append({"prompt": prompt, **about, **{name: row[name] for name in judged}})
            seen.add(row["dialogue"])
        elif worse is None:
            continue
        elif layout == "trl-dpo":
            rows.append({"prompt": prompt, "chosen": better, "rejected": worse, **about})
        else:
            rows.append({"prompt": prompt, "completion": better, "label": True, **about})
            rows.append({"prompt": prompt, "completion": worse, "label": False, **about})
    return rows


def _said(text: str | None) -> list[dict[str, str]] | None:
    return None if text is None else [{"role": "assistant", "content": text}]


def label_accuracy(kept: Sequence[Row]) -> tuple[float | None, int]:
    """The share of the replies kept as right that are, and of how many the truth is known."""
    known = []
    for row in kept:
        reply = parse(row["chosen"])
        if row["truth"] is not None and isinstance(reply, Reply):
            known.append(same(reply.answer, row["truth"], row.get("grader", "number")))
    return (sum(known) / len(known) if known else None), len(known)


def dataset_card(kept: Sequence[Row], rows: int, layout: str, settings: Mapping[str, Any]) -> str:
    """How the rows were made, by what, and what is known of their labels."""
    recipe = settings.get("recipe", {})
    stages = [s for s in recipe.get("stages", []) if s.get("kind") == "offline"]
    anchors = ", ".join(dict.fromkeys(str(s.get("anchor")) for s in stages)) or "not recorded"
    share, known = label_accuracy(kept)
    labels = "no truth is known" if share is None else f"{share:.1%} of {known:,} with known truth"
    sides = {s: sum(row["side"] == s for row in kept) for s in ("resist", "accept", "alone")}
    named = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(settings, sort_keys=True, default=str))
    table = {
        "rows": f"{rows:,}",
        "made by": f"demur {__version__}, recipe `{recipe.get('name', '?')}`, "
        f"seed {settings.get('seed', '?')}",
        "model": f"`{Path(str(settings.get('model', '?'))).name}`, as it was before that stage",
        "anchor": anchors,
        "labels": f"right where the anchor said so; of the replies kept as right, {labels} are",
        "dialogues": f"{sides['resist']:,} in which to resist a wrong claim, "
        f"{sides['accept']:,} in which to accept a right one, {sides['alone']:,} without a claim",
        "licence": "yours to name: it follows that of the tasks and of the model",
    }
    return "\n".join(
        [
            *("---", "configs:", "- config_name: default", "  data_files: data/train.parquet"),
            *("tags: [trl, demur]", "---", "", f"# Self-play of demur, as {layout}", ""),
            *("| | |", "|---|---|", *(f"| {name} | {said} |" for name, said in table.items())),
            "",
            "Messages are in TRL's conversational layout, so the model's own chat template is "
            "applied. Replies are `<answer>…</answer><confidence>…</confidence>`.",
            "",
            "Keep this string out of what a model learns from if you mean to evaluate on these "
            f"rows: `{CANARY} {named}`",
            "",
        ]
    )


def _settings(run: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{run / CONFIG} cannot be read: {error}") from error
