"""Trackers: a run's figures in TensorBoard, Weights & Biases or Trackio while they are logged.

``metrics.jsonl`` is the record, a tracker its copy under the same names. ``trackers.json`` in the
run folder says which run of each tracker the copy is, and which step it has. So a resumed run goes
on in the same place, no step is sent twice (a resumed run takes the same steps again), and a
tracker that is added late gets what was logged before it. Addresses, projects and keys are each
library's own business: its login and its environment variables. What a library holds back before
it writes (wandb offline: 15 seconds) is lost to the tracker when the process is killed outright.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from demur.errors import ConfigError, DemurError, UnknownName
from demur.runlog import CONFIG, METRICS, RunFolder, atomic_write, plain, read_metrics, system_error

TRACKERS = "trackers.json"
PROJECT = "demur"
Figures = Mapping[str, float | str]


class Tracker(Protocol):
    """One run in one tracker; ``where`` tells a user how to look at it."""

    where: str

    def log(self, step: int, figures: Figures) -> None:
        """Add figures to a step."""
        ...

    def close(self, failed: bool) -> None:
        """Wait until everything is written."""
        ...


class TensorBoard:
    """Event files in the run folder, under ``tensorboard``; texts are left out."""

    def __init__(self, run: RunFolder, title: str, name: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.where = str(run.path / "tensorboard")
        # What a killed run wrote after the step that trackers.json knows is purged by its reader.
        self._writer = SummaryWriter(self.where, purge_step=step + 1)
        if not step:
            config = tomli_w.dumps(_config(run)).replace("\n", "\n    ")
            self._writer.add_text("config", f"    {config}", 0)

    def log(self, step: int, figures: Figures) -> None:
        """Add figures to a step; they are in the file on return."""
        for key, value in figures.items():
            if not isinstance(value, str):
                self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """End the event file."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases; offline, its folder is in the run folder, under ``wandb``.

    Command line, host and console are not recorded: only the settings and figures are sent.
    """

    def __init__(self, run: RunFolder, title: str, name: str, step: int) -> None:
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True))
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, x_disable_meta=True, save_code=False
        )
        offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=name,
            name=title,
            config=_config(run),
            dir=os.environ.get("WANDB_DIR", str(run.path)),
            resume=None if offline else "allow",
            settings=settings,
        )
        self.where = str(Path(self._run.dir).parent) if offline else str(self._run.url)

    def log(self, step: int, figures: Figures) -> None:
        """Add figures to a step, or to the one at hand: a run taken up again is past its last."""
        self._run.log(dict(figures), step=max(step, self._run.step))

    def close(self, failed: bool) -> None:
        """Wait for what is still to be sent."""
        self._run.finish(exit_code=int(failed))


class Trackio:
    """A run in Trackio's local database, or on the server that its environment names."""

    def __init__(self, run: RunFolder, title: str, name: str, step: int) -> None:
        import trackio

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        with redirect_stdout(io.StringIO()):
            self._run = trackio.init(
                project=project,
                name=f"{title}-{name}",  # a name is what Trackio knows a run by
                config=_config(run),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        self.where = f"trackio show --project {project}"

    def log(self, step: int, figures: Figures) -> None:
        """Add figures to a step."""
        self._run.log(dict(figures), step=step)

    def close(self, failed: bool) -> None:
        """Wait until the database, or the server, has everything."""
        with redirect_stdout(io.StringIO()):
            self._run.finish()


KNOWN: dict[str, Callable[[RunFolder, str, str, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The trackers asked for, each once, in order; nothing is opened.

    Raises ``UnknownName``, and ``ConfigError`` where a package is missing.
    """
    for name in names:
        if name not in KNOWN:
            raise UnknownName("tracker", name, KNOWN)
        if find_spec(name) is None:
            raise ConfigError(
                f"--track {name} needs the package {name}: pip install 'demur[{name}]'"
            )
    return tuple(dict.fromkeys(names))


class Tracking:
    """A run folder's trackers, brought level with its ``metrics.jsonl`` on opening."""

    def __init__(self, run: RunFolder, names: Sequence[str], title: str) -> None:
        self._run, self._open = run, {}
        self._marks: dict[str, dict[str, Any]] = _marks(run.path / TRACKERS) if names else {}
        try:
            for name in names:
                self._open[name] = self._start(name, title)
        except BaseException:
            self.close(failed=True)
            raise

    _open: dict[str, Tracker]

    def _start(self, name: str, title: str) -> Tracker:
        mark = self._marks.setdefault(name, {"id": secrets.token_hex(4), "step": 0})
        try:
            tracker = KNOWN[name](self._run, title, mark["id"], mark["step"])
        except Exception as error:
            if isinstance(error, DemurError) or system_error(error) is not None:
                raise
            said = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            raise ConfigError(
                f"--track {name} cannot start ({said}); log in to it, use its offline mode, or "
                "leave the flag out"
            ) from error
        path = self._run.path / METRICS
        for line in read_metrics(path) if path.exists() else ():
            self._send(name, tracker, line)
        return tracker

    @property
    def where(self) -> dict[str, str]:
        """How to look at each tracker's copy."""
        return {name: tracker.where for name, tracker in self._open.items()}

    def step(self, line: Mapping[str, object]) -> None:
        """Pass on a line of ``metrics.jsonl`` to the trackers that do not have its step."""
        for name, tracker in self._open.items():
            self._send(name, tracker, line)

    def _send(self, name: str, tracker: Tracker, line: Mapping[str, object]) -> None:
        mark, step = self._marks[name], int(str(line.get("step") or 0))
        if step <= mark["step"]:
            return
        tracker.log(step, _figures({k: v for k, v in line.items() if k != "step"}))
        mark["step"] = step
        self._note()

    def final(self, metrics: Mapping[str, Mapping[str, object]]) -> None:
        """The figures of the closing evaluation as ``test/NAME``, with ends of their intervals."""
        flat = {
            f"test/{name}{end}": value.get(key)
            for name, value in metrics.items()
            for key, end in (("mean", ""), ("low", "_low"), ("high", "_high"))
        }
        for name, tracker in self._open.items():
            if not self._marks[name].get("evaluated"):
                tracker.log(self._marks[name]["step"], _figures(flat))
                self._marks[name]["evaluated"] = True
                self._note()

    def _note(self) -> None:
        atomic_write(self._run.path / TRACKERS, json.dumps(self._marks, indent=1) + "\n")

    def close(self, failed: bool = False) -> None:
        """Wait until every tracker has everything."""
        for tracker in self._open.values():
            tracker.close(failed)
        self._open = {}


@contextmanager
def tracked(run: RunFolder, names: Sequence[str], title: str) -> Iterator[Tracking]:
    """Let trackers follow what a run folder logs, for as long as the context lasts."""
    tracking = Tracking(run, names, title)
    run.followers.append(tracking.step)
    failed = True
    try:
        yield tracking
        failed = False
    finally:
        run.followers.remove(tracking.step)
        tracking.close(failed)


def _marks(path: Path) -> dict[str, dict[str, Any]]:
    """What is known of each tracker's copy; a broken file is as good as none."""
    with suppress(OSError, ValueError, AttributeError):
        found = json.loads(path.read_text())
        return {name: mark for name, mark in found.items() if {"id", "step"} <= {*mark}}
    return {}


def _config(run: RunFolder) -> dict[str, Any]:
    """The run's resolved settings; the addresses of servers stay at home."""
    found: dict[str, Any] = _without_addresses(tomllib.loads((run.path / CONFIG).read_text()))
    return found


def _without_addresses(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_addresses(v) for k, v in value.items() if k != "endpoint"}
    return [_without_addresses(each) for each in value] if isinstance(value, list) else value


def _figures(line: Mapping[str, object]) -> dict[str, float | str]:
    """What trackers hold of a line: numbers that are there, and texts; missing is not zero."""
    return {k: v for k, v in plain(line).items() if isinstance(v, int | float | str)}
