"""What of an engine's model lies here: its tokenizer, and the checkpoints' names and adapters."""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import httpx
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from demur.engine import adapter
from demur.errors import EngineError, ModelFolderError
from demur.policies.connection import Connection

STATE = "engine.json"
ARCHIVE_SECONDS = 600.0
TRIES, BLOCK = 3, 1 << 20
LARGEST = 1 << 35
"""Bytes of an adapter: more is no adapter, whatever says so."""
BROKEN = (
    httpx.HTTPError,
    tarfile.TarError,
    EOFError,
    zlib.error,
    SafetensorError,
    KeyError,
    TypeError,
    ValueError,
)
"""What an archive that is cut off, or is something else, raises."""


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


def unpack(archive: IO[bytes], wanted: Sequence[str], folder: Path) -> None:
    """Put files of a tar archive into a folder by their names; links and all else are left alone.

    Raises ``KeyError`` for a file that is not in it.
    """
    missing = set(wanted)
    with tarfile.open(fileobj=archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if not member.isfile() or name not in wanted:
                continue
            if member.size > LARGEST:
                raise ValueError(f"{name} has {member.size} bytes")
            content = tar.extractfile(member)
            assert content is not None
            with (folder / name).open("wb") as file:
                shutil.copyfileobj(content, file)
            missing.discard(name)
    if missing:
        raise KeyError(*sorted(missing))


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
    """Take an adapter out of the engine's archive: two files by name, nothing else.

    What fails on the way is tried again; raises ``EngineError``.
    """
    run, _, checkpoint = weights.removeprefix("tinker://").partition("/")
    rest = link.service.create_rest_client()
    for tries in range(TRIES):
        if tries:
            time.sleep(2.0**tries)
        try:
            _fetch(link.wait(rest.get_checkpoint_archive_url(run, checkpoint)).url, folder)
            settings = json.loads((folder / adapter.CONFIG).read_bytes())
            rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
            return adapter.adopt(folder, rank, alpha, home(model))
        except BROKEN as error:
            said = type(error).__name__
    raise EngineError(
        f"the adapter could not be fetched from the engine at {link.url} ({said}); look at its own "
        "log, and go on with --resume"
    )


def _fetch(url: str, folder: Path) -> None:
    with (
        tempfile.TemporaryFile() as archive,
        httpx.stream("GET", url, timeout=ARCHIVE_SECONDS, follow_redirects=True) as answer,
    ):
        answer.raise_for_status()
        for block in answer.iter_bytes(BLOCK):
            archive.write(block)
        archive.seek(0)
        unpack(archive, (adapter.CONFIG, adapter.WEIGHTS), folder)
