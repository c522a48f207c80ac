"""What of an engine's model lies here: its tokenizer, and the checkpoints' names and adapters."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from demur.engine import adapter
from demur.errors import EngineError, ModelFolderError
from demur.policies.connection import Connection

STATE = "engine.json"
ARCHIVE_SECONDS = 600.0


def words(model: str) -> tuple[Any, GenerationConfig | None, int | None]:
    """A model's tokenizer, how it stops and how long its context is, from a folder or the hub."""
    local = Path(model).is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # every way in which a foreign folder or hub can fail
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFolderError(
            f"the tokenizer of {model} cannot be loaded here ({first}); "
            + ("copy the folder again whole" if local else "put the model into a folder here")
        ) from error
    if tokenizer.eos_token_id is None or not tokenizer.chat_template:
        raise ModelFolderError(
            f"the tokenizer of {model} has no chat template or no end-of-sequence token; use an "
            "instruction-tuned model"
        )
    try:
        ends = GenerationConfig.from_pretrained(model)
    except OSError:
        ends = None
    return tokenizer, ends, getattr(config, "max_position_embeddings", None)


def home(model: str) -> str:
    """Where a model lies, or its name where it does not lie here."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def members(archive: bytes, wanted: Sequence[str]) -> dict[str, bytes]:
    """Files of a tar archive by their names; links and everything else are left alone."""
    held: dict[str, bytes] = {}
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and name in wanted:
                content = tar.extractfile(member)
                assert content is not None
                held[name] = content.read()
    for name in wanted:
        if name not in held:
            raise KeyError(name)
    return held


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``write_facts`` noted; raises ``ModelFolderError``."""
    try:
        facts = json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        facts = None
    if not isinstance(facts, dict):
        raise ModelFolderError(
            f"{folder} holds no checkpoint of an engine ({STATE} cannot be read); resume it with "
            "--policy local, or start a new --out"
        )
    return facts


def write_facts(folder: Path, **facts: object) -> None:
    """Note which checkpoint of which engine a folder stands for."""
    (folder / STATE).write_text(json.dumps(facts, indent=1) + "\n")


def fetch_adapter(link: Connection, weights: str, model: str, folder: Path) -> None:
    """Take an adapter out of the engine's archive: two files by name, nothing else."""
    run, _, checkpoint = weights.removeprefix("tinker://").partition("/")
    try:
        rest = link.service.create_rest_client()
        where = link.wait(rest.get_checkpoint_archive_url(run, checkpoint)).url
        answer = httpx.get(where, timeout=ARCHIVE_SECONDS, follow_redirects=True)
        answer.raise_for_status()
        held = members(answer.content, (adapter.CONFIG, adapter.WEIGHTS))
        settings = json.loads(held[adapter.CONFIG])
        rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
    except (httpx.HTTPError, tarfile.TarError, KeyError, ValueError) as error:
        raise EngineError(
            f"the adapter could not be fetched from the engine at {link.url} "
            f"({type(error).__name__}); look at its own log, and go on with --resume"
        ) from error
    (folder / adapter.WEIGHTS).write_bytes(held[adapter.WEIGHTS])
    adapter.adopt(folder, rank, alpha, home(model))
