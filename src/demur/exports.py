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
PAIRED = ("trl-dpo", "trl-kto")
SUREST = "surest"
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
    kept, settings = used(read_kept(run), layout), _settings(run)
    if layout == "trl-kto" and any(s.get("keep") == SUREST for s in _played(settings)):
        raise RunFolderError(
            f"the run in {run} kept pairs by how sure the policy was, so neither reply of one is "
            "right or wrong, as trl-kto has it: export trl-dpo"
        )
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
            "of the recipes offline_supervised and offline_pairs (see demur recipes)"
        )
    try:
        return [row for file in files for row in pq.read_table(file).to_pylist()]
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"the rows kept in {run} cannot be read ({error})") from error


def used(kept: Sequence[Row], layout: str) -> list[Row]:
    """What of the rows a layout is made of: pairs, or each dialogue once (``trl-grpo``), or all."""
    if layout in PAIRED:
        return [row for row in kept if row["rejected"] is not None]
    if layout == "trl-grpo":
        once: dict[str, Row] = {}
        for row in kept:
            once.setdefault(row["dialogue"], row)
        return list(once.values())
    return list(kept)


def as_dataset(kept: Sequence[Row], layout: str) -> list[dict[str, Any]]:
    """The rows of one layout, from what is ``used`` of those kept."""
    rows: list[dict[str, Any]] = []
    judged = [name for name in _JUDGED if all(name in row for row in kept)]
    for row in kept:
        prompt = json.loads(row["dialogue"])
        about = {name: row[name] for name in ("task_id", "truth", "claim", "claim_right", "side")}
        better, worse = _said(row["chosen"]), _said(row["rejected"])
        if layout == "trl-sft":
            rows.append({"prompt": prompt, "completion": better, **about})
        elif layout == "trl-grpo":
            rows.append({"prompt": prompt, **about, **{name: row[name] for name in judged}})
        elif layout == "trl-dpo":
            rows.append({"prompt": prompt, "chosen": better, "rejected": worse, **about})
        else:
            rows.append({"prompt": prompt, "completion": better, "label": True, **about})
            rows.append({"prompt": prompt, "completion": worse, "label": False, **about})
    return rows


def _said(text: str | None) -> list[dict[str, str]] | None:
    return None if text is None else [{"role": "assistant", "content": text}]


def label_accuracy(kept: Sequence[Row], which: str = "chosen") -> tuple[float | None, int]:
    """The share of the replies kept as better, or as worse, that are right; and of how many.

    Replies that cannot be read and tasks without a known truth do not count.
    """
    known = []
    for row in kept:
        reply = parse(row[which] or "")
        if row["truth"] is not None and isinstance(reply, Reply):
            known.append(same(reply.answer, row["truth"], row.get("grader", "number")))
    return (sum(known) / len(known) if known else None), len(known)


def dataset_card(kept: Sequence[Row], rows: int, layout: str, settings: Mapping[str, Any]) -> str:
    """How the rows were made of what was kept for them, by what, and what labels are worth."""
    named = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(settings, sort_keys=True, default=str))
    sides = {s: sum(row["side"] == s for row in kept) for s in ("resist", "accept", "alone")}
    recipe = settings.get("recipe", {})
    table = {
        "rows": f"{rows:,}",
        "made by": f"demur {__version__}, recipe `{recipe.get('name', '?')}`, "
        f"seed {settings.get('seed', '?')}",
        "model": f"`{Path(str(settings.get('model', '?'))).name}`, as it was before that stage",
        "anchor": ", ".join(dict.fromkeys(map(_anchor, _played(settings)))) or "not recorded",
        "labels": _labels(kept, layout),
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


def _played(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [s for s in settings.get("recipe", {}).get("stages", []) if s.get("kind") == "offline"]


def _anchor(stage: Mapping[str, Any]) -> str:
    if stage.get("keep") == SUREST:
        return f"none: how sure the policy itself was ({stage.get('confidence')} of its tokens)"
    return str(stage.get("anchor"))


def _labels(kept: Sequence[Row], layout: str) -> str:
    if layout == "trl-grpo":
        known = sum(row["truth"] is not None for row in kept)
        return f"none: rewards judge what is said anew; the truth of {known:,} dialogues is known"
    better, worse = (label_accuracy(kept, which) for which in ("chosen", "rejected"))
    share, known = better
    if share is None:
        return "no truth is known"
    said = f"of the replies kept as {'better' if layout in PAIRED else 'right'}, "
    said += f"{share:.1%} of {known:,} with known truth are right"
    if layout in PAIRED and worse[0] is not None:
        said += f"; of those kept as worse, {worse[0]:.1%} of {worse[1]:,}"
    return said


def _settings(run: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{run / CONFIG} cannot be read: {error}") from error
