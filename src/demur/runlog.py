"""The run folder: everything a run leaves behind, written so that a crash at any moment is safe.

    config.toml    the resolved settings      episodes/step-000010.parquet
    metrics.jsonl  one line a step            checkpoints/step-10/  (complete.json last)
    private.parquet, offline-0.parquet        what was said before a stage began

A file is replaced whole or not at all: it is written beside its place, synced, then renamed. A
checkpoint is a folder that is renamed into place once its marker ``complete.json`` stands in it. A
folder that holds a run is resumed or refused, never overwritten. A full disk is one sentence.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from demur.errors import DemurError, RunFolderError
from demur.schema import Dialogue, Row

CONFIG, METRICS, MARKER = "config.toml", "metrics.jsonl", "complete.json"
_CHECKPOINT = re.compile(r"step-([0-9]+)")
_WRAPPED = re.compile(r"\(os error ([0-9]+)\)")  # as libraries written in Rust end a message


class Checkpoint(NamedTuple):
    """A complete checkpoint: the step after which it was taken, and its folder."""

    step: int
    path: Path


class RunFolder:
    """A run's folder, made or taken up.

    ``config`` is the resolved settings as nested tables. A new folder must be absent or empty. With
    ``resume`` a folder that holds a run is taken up if its settings are the same (and made if there
    is none). Raises ``RunFolderError``. Resuming changes nothing by itself: ``rewind`` does.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any], resume: bool = False) -> None:
        self.path = Path(path)
        self.followers: list[Callable[[Mapping[str, object]], None]] = []
        settings = _plain_table(config)
        with _explained(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise RunFolderError(f"{path} is a file, not a folder; name another --out")
            self.path.mkdir(parents=True, exist_ok=True)
            there = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")]
        if CONFIG in there:
            if not resume:
                raise RunFolderError(
                    f"{path} already holds a run; add --resume to go on with it, or name another "
                    f"--out"
                )
            self._check_same(settings)
        elif there:
            raise RunFolderError(
                f"{path} is not empty and holds no run ({CONFIG} is missing); name another --out"
            )
        else:
            atomic_write(self.path / CONFIG, tomli_w.dumps(settings))

    def write_json(self, name: str, value: object) -> Path:
        """Write a JSON file; what is not a finite number becomes null."""
        return atomic_write(self.path / name, json.dumps(plain(value), indent=1) + "\n")

    def log(self, metrics: Mapping[str, object]) -> None:
        """Append one line to ``metrics.jsonl``; nan becomes null. The line is there on return.

        Then ``followers`` are told it.
        """
        append_line(self.path / METRICS, metrics)
        for follower in self.followers:
            follower(metrics)

    def episodes(self, step: int, rows: Sequence[Row]) -> Path | None:
        """Write the episodes of one step as Parquet; without rows there is no file."""
        if not rows:
            return None
        folder = self.path / "episodes"
        with _explained(folder):
            folder.mkdir(exist_ok=True)
        return self.table(f"episodes/step-{step:06d}.parquet", rows)

    def table(self, name: str, rows: Sequence[Row]) -> Path:
        """Write rows as a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
        return atomic_write(self.path / name, buffer.getvalue())

    def read_table(self, name: str) -> list[Row]:
        """Read rows back; raises ``RunFolderError`` for a file that is gone or broken."""
        try:
            found: list[Row] = pq.read_table(self.path / name).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise RunFolderError(
                f"{self.path / name} cannot be read ({error}), and the run cannot go on without "
                "it; name another --out"
            ) from error
        return found

    def checkpoint(self, step: int, writer: Callable[[Path], None], keep: int = 2) -> Checkpoint:
        """Let ``writer`` fill a folder, then put it in place; keep the ``keep`` newest.

        A crash before the end leaves the earlier checkpoints as they were.
        """
        if step < 0 or keep < 1:
            raise ValueError(f"step must be 0 or more and keep 1 or more, not {step} and {keep}")
        home = self.path / "checkpoints"
        place, temporary = home / f"step-{step}", home / f".tmp-step-{step}"
        with _explained(place):
            shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left
            temporary.mkdir(parents=True)
            try:
                writer(temporary)
                for file in temporary.rglob("*"):
                    _sync(file)
                atomic_write(temporary / MARKER, json.dumps({"step": step}) + "\n")
                self._remove(place)  # the same step again, after a resume
                temporary.rename(place)
                _sync(home)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            for old in self.checkpoints()[:-keep]:
                self._remove(old.path)
        return Checkpoint(step, place)

    def checkpoints(self) -> list[Checkpoint]:
        """The complete checkpoints, oldest first."""
        home = self.path / "checkpoints"
        found: list[Checkpoint] = []
        for folder in home.iterdir() if home.is_dir() else ():
            match = _CHECKPOINT.fullmatch(folder.name)
            if match and (folder / MARKER).is_file():
                found.append(Checkpoint(int(match[1]), folder))
        return sorted(found)

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest complete checkpoint."""
        complete = self.checkpoints()
        return complete[-1] if complete else None

    def rewind(self) -> Checkpoint | None:
        """Go back to the newest complete checkpoint and return it.

        ``metrics.jsonl`` is cut to the lines up to its step (all of it goes where there is none),
        since the steps after it will be taken again.
        """
        newest = self.latest_checkpoint()
        last = -math.inf if newest is None else newest.step
        path = self.path / METRICS
        if path.exists():
            kept = [line for line in read_metrics(path) if (line.get("step") or 0) <= last]
            atomic_write(path, "".join(json.dumps(line) + "\n" for line in kept))
        return newest

    def _check_same(self, settings: Mapping[str, Any]) -> None:
        path = self.path / CONFIG
        try:
            with _explained(path):
                before = tomllib.loads(path.read_bytes().decode())
        except ValueError as error:
            raise RunFolderError(f"{path} cannot be read ({error}); name another --out") from None
        old, new = dict(_leaves(before)), dict(_leaves(settings))
        for key in sorted(old.keys() | new.keys()):
            was, now = (_shown(leaves, key) for leaves in (old, new))
            if key not in old or key not in new or old[key] != new[key]:
                raise RunFolderError(
                    f"{self.path} holds a run with other settings: {key} was {was} and is now "
                    f"{now}; use the old value or name another --out"
                )

    @staticmethod
    def _remove(checkpoint: Path) -> None:
        """Remove a checkpoint, its marker first, so that a crash half-way leaves it incomplete."""
        if checkpoint.exists():
            (checkpoint / MARKER).unlink(missing_ok=True)
            shutil.rmtree(checkpoint)


def dialogue_json(dialogue: Dialogue) -> str:
    """A dialogue as one cell of a table."""
    turns = [{"role": m.role, "content": m.content} for m in dialogue]
    return json.dumps(turns, ensure_ascii=False)


def atomic_write(path: str | Path, content: str | bytes) -> Path:
    """Replace a file whole: after a crash at any moment it holds the old content or the new.

    Raises ``RunFolderError`` and leaves no temporary file behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _explained(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                _write_all(descriptor, content.encode() if isinstance(content, str) else content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)
    return path


def append_line(path: Path, record: Mapping[str, object], *, synced: bool = False) -> None:
    """Append one JSON line; what is not a finite number becomes null.

    The line is there on return; ``synced``, it outlives a power cut. Raises ``RunFolderError``.
    """
    line = (json.dumps(plain(record)) + "\n").encode()
    with _explained(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _write_all(descriptor, line)
            if synced:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``, without a torn last line, which a killed run leaves."""
    with _explained(Path(path)):
        lines = Path(path).read_bytes().split(b"\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif number < len(lines):  # a whole line ends in a newline, so this one isn't just torn
            raise RunFolderError(f"{path}, line {number} is not a JSON object; remove that line")
    return records


def plain(value: object) -> Any:
    """Turn a value into what JSON can hold: numpy's numbers become Python's, nan and inf null."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _plain_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table as TOML can hold it: without the keys that are not set."""
    kept = {key: value for key, value in table.items() if value is not None}
    return tomllib.loads(
        tomli_w.dumps(
            {
                key: _plain_table(value)
                if isinstance(value, Mapping)
                else [_plain_table(v) if isinstance(v, Mapping) else v for v in value]
                if isinstance(value, list | tuple)
                else value
                for key, value in kept.items()
            }
        )
    )


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every (dotted key, value); an empty table or list is a value of its own."""
    parts: Iterator[tuple[object, object]] | None = None
    if isinstance(value, Mapping) and value:
        parts = iter(value.items())
    elif isinstance(value, list) and value:
        parts = iter(enumerate(value))
    if parts is None:
        yield prefix, value
        return
    for key, part in parts:
        yield from _leaves(part, f"{prefix}.{key}" if prefix else str(key))


def _shown(leaves: Mapping[str, object], key: str) -> str:
    return repr(leaves[key]) if key in leaves else "not set"


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(path: Path) -> None:
    """Make a file, or a folder's list of names, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def system_error(error: Exception) -> OSError | None:
    """The system's error behind an exception, also where a library passes it on as text only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    said = _WRAPPED.search(str(error))
    code = int(said[1]) if said else 0
    if "No space left on device" in str(error):
        code = errno.ENOSPC
    if code:
        return OSError(code, os.strerror(code))
    return error if isinstance(error, OSError) else None


def explain_os_error(error: OSError) -> str:
    """One sentence for an error of the system that nothing nearer the cause has explained."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full; free some space, then go on with --resume"
    return f"{where}{error.strerror or error}"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the system's errors, and other libraries' reports of a full disk, into one of ours."""
    try:
        yield
    except DemurError:  # an engine that is gone is an OSError, too, and says what to do
        raise
    except Exception as error:
        cause = system_error(error)
        if cause is None:
            raise
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFolderError(
                f"{path} cannot be written: the disk is full; free some space, then go on with "
                f"--resume"
            ) from error
        reason = cause.strerror or str(cause)
        raise RunFolderError(
            f"{path} cannot be used: {reason[:1].lower()}{reason[1:]}; mend that or name "
            f"another --out"
        ) from error
