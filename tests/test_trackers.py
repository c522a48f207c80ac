"""Runs followed by trackers, each in its offline mode and read back with its own reader."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from demur import cli, runlog, trackers
from demur.errors import ConfigError, UnknownName
from demur.runlog import RunFolder, read_metrics
from demur.trackers import check_trackers, tracked

SOURCES = str(Path(runlog.__file__).parents[1])
SECRET = "sk-canary-never-to-be-written-0123456789"
SMALL = [
    *("--set", "tasks.pool=6", "--set", "tasks.private_samples=2", "--set", "learner.prompts=4"),
    *("--set", "learner.group=2", "--set", "learner.steps=3", "--quiet"),
    *("--set", "tasks.max_tokens=8", "--set", "learner.max_tokens=8"),
]
Read = Callable[[Path], dict[str, list[tuple[int, Any]]]]


def from_tensorboard(out: Path) -> dict[str, list[tuple[int, Any]]]:
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is absent"
    )
    found = reading.EventAccumulator(str(out / "tensorboard"))
    found.Reload()
    return {
        name: [(event.step, event.value) for event in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of a run file: LevelDB's log, in blocks of 32 kB, after 7 bytes of its own."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def from_wandb(out: Path) -> dict[str, list[tuple[int, Any]]]:
    """The history of every offline folder, which belong to one run."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, list[tuple[int, Any]]] = {}
    ids = set()
    for path in out.glob("wandb/offline-run-*/*.wandb"):
        for data in wandb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            ids |= {record.run.run_id} - {""}
            cells = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
                for item in record.history.item
            }
            step = record.history.step.num
            for name, value in cells.items():
                if not name.startswith("_"):
                    found.setdefault(name, []).append((step, value))
    assert len(ids) == 1
    return found


TRACKIO = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage
(run,) = [r for r in SQLiteStorage.get_runs("demur") if r.endswith(sys.argv[1])]
print(json.dumps(SQLiteStorage.get_logs("demur", run), default=str))
"""


def from_trackio(out: Path) -> dict[str, list[tuple[int, Any]]]:
    """Its database; in a process of its own, as its place is fixed on import."""
    name = json.loads((out / trackers.TRACKERS).read_text())["trackio"]["id"]
    said = subprocess.run(
        [sys.executable, "-c", TRACKIO, name], capture_output=True, text=True, check=True
    )
    found: dict[str, list[tuple[int, Any]]] = {}
    for row in json.loads(said.stdout):
        for key, value in row.items():
            if key not in ("step", "timestamp"):
                found.setdefault(key, []).append((row["step"], value))
    return found


READERS: dict[str, Read] = {
    "tensorboard": from_tensorboard,
    "wandb": from_wandb,
    "trackio": from_trackio,
}


@pytest.fixture(params=READERS)
def tracker(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    pytest.importorskip(name, reason=f"{name} is absent")
    return name


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """No tracker finds a network or a home; each finds a key that it may not write."""
    given = {
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_API_KEY": SECRET,
        "OPENAI_API_KEY": SECRET,
        "HF_TOKEN": SECRET,
        "HF_HUB_OFFLINE": "1",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": SOURCES,
    }
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    return {**os.environ, **given}


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """What a tracker should hold of a logged line."""
    return {
        k: v
        for k, v in line.items()
        if k != "step" and isinstance(v, int | float) and math.isfinite(v)
    }


def same(read: Mapping[str, list[tuple[int, Any]]], logged: list[dict[str, Any]]) -> None:
    """The tracker has every step of the log once, with its figures under the same names."""
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in logged:
        for name, value in numbers(line).items():
            expected.setdefault(name, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    kept = {
        name: values
        for name, values in read.items()
        if not any(isinstance(value, str) for _, value in values)
    }
    assert kept.keys() == expected.keys()
    for name, values in expected.items():
        assert sorted(kept[name]) == values, name


def python(code: str, out: Path, tracker: str, env: dict[str, str]) -> int:
    """Python in a process of its own: trackers hold one run a process, and it can be killed."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(out), tracker],
        env=env,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ran.returncode in (0, 9), ran.stderr
    return ran.returncode


def demur(env: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from demur.cli import main; main()", *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_a_run_is_in_the_tracker_as_it_is_in_its_log(
    tracker: str, tmp_path: Path, random_model: Path, offline: dict[str, str]
) -> None:
    out = tmp_path / "run"
    given = ("train", "majority", "--model", random_model, "--out", out, *SMALL)
    ran = demur(offline, *given, "--track", tracker)
    assert ran.returncode == 0 and ran.stderr == "", ran.stderr
    assert f"{tracker}: " in ran.stdout
    logged = read_metrics(out / "metrics.jsonl")
    assert len(logged) == 3 and "coverage" in logged[0]
    same(READERS[tracker](out), logged)
    ran = demur(offline, *given, "--track", tracker, "--resume")
    assert ran.returncode == 0, ran.stderr
    same(READERS[tracker](out), logged)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


ADDRESS = "http://user:key@intranet:8000/v1"
CONFIG = f"""
import sys
from pathlib import Path
from demur.runlog import RunFolder
from demur.trackers import tracked
judge = {{"anchor": "judge", "anchor_options": {{"model": "wise", "endpoint": "{ADDRESS}"}}}}
settings = {{"endpoint": "{ADDRESS}", "recipe": {{"stages": [judge]}}}}
run = RunFolder(Path(sys.argv[1]), settings)
with tracked(run, [sys.argv[2]], "t"):
    run.log({{"step": 1, "reward": 0.5}})
"""


def test_addresses_of_servers_stay_at_home(
    tracker: str, tmp_path: Path, offline: dict[str, str]
) -> None:
    assert python(CONFIG, tmp_path / "run", tracker, offline) == 0
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "config.toml"]
    held = {file: file.read_bytes() for file in files}
    assert any(b"wise" in content for content in held.values()), "the settings are told"
    assert not [file for file, content in held.items() if b"intranet" in content]


LOG = """
import os, sys
from pathlib import Path
from demur.runlog import RunFolder
from demur.trackers import tracked
run = RunFolder(Path(sys.argv[1]), {"seed": 0}, resume=True)
def line(step):
    return {"step": step, "stage": "s", "reward": step / 8, "gone": float("nan"), "dev/ece": 0.5}
"""


def test_a_stopped_run_goes_on_without_a_step_twice(
    tracker: str, tmp_path: Path, offline: dict[str, str]
) -> None:
    """Steps 1 to 4, a checkpoint at 2, the end; the second sitting takes 3 to 6.

    The end is a kill, or for wandb, which writes its file every 15 seconds, an error.
    """
    end = "os._exit(9)" if tracker != "wandb" else "raise SystemExit(9)"
    out = tmp_path / "run"
    first = """
with tracked(run, [sys.argv[2]], "t"):
    for step in range(1, 5):
        run.log(line(step))
        if step == 2:
            run.checkpoint(2, lambda folder: None)
    import time
    time.sleep(1.5)
    """
    first += end
    second = """
with tracked(run, [sys.argv[2]], "t") as tracking:
    assert run.rewind().step == 2
    for step in range(3, 7):
        run.log(line(step))
    for _ in range(2):
        tracking.final({"resist": {"mean": 0.75, "low": 0.5, "high": None, "n": 8}})
"""
    assert python(LOG + first, out, tracker, offline) == 9
    assert python(LOG + second, out, tracker, offline) == 0
    read = READERS[tracker](out)
    assert read.pop("test/resist") == [(6, 0.75)] and read.pop("test/resist_low") == [(6, 0.5)]
    assert "test/resist_high" not in read and "gone" not in read
    logged = read_metrics(out / "metrics.jsonl")
    assert [step["step"] for step in logged] == [1, 2, 3, 4, 5, 6]
    same(read, logged)


def test_a_tracker_that_is_added_late_gets_the_earlier_steps(
    tracker: str, tmp_path: Path, offline: dict[str, str]
) -> None:
    out = tmp_path / "run"
    assert python(LOG + "run.log(line(1)); run.log(line(2))", out, tracker, offline) == 0
    late = "\nwith tracked(run, [sys.argv[2]], 't'):\n    run.log(line(3))\n"
    assert python(LOG + late, out, tracker, offline) == 0
    same(READERS[tracker](out), read_metrics(out / "metrics.jsonl"))


def test_a_study_tracks_each_run_with_its_evaluation(
    tmp_path: Path, random_model: Path, offline: dict[str, str]
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is absent")
    out = tmp_path / "study"
    given = ("study", "--arms", "majority", "--seeds", 2, "--workers", 2, "--tasks", 4)
    ran = demur(
        offline, *given, "--model", random_model, "--out", out, *SMALL, "--track", "tensorboard"
    )
    assert ran.returncode == 0, ran.stderr
    for seed in (0, 1):
        run = out / "runs" / "majority" / f"seed-{seed}"
        figures = json.loads((run / "evaluation.json").read_text())["arms"]["majority"]
        read = from_tensorboard(run)
        assert read["test/coverage"] == [(3, pytest.approx(figures["coverage"]["mean"]))]
        tests = {n.removeprefix("test/") for n in read if n.startswith("test/")}
        there = {n for n, value in figures.items() if value["mean"] is not None}
        assert {n for n in tests if n in figures} == there
        same(
            {n: v for n, v in read.items() if not n.startswith("test/")},
            read_metrics(run / "metrics.jsonl"),
        )


def test_what_cannot_be_tracked_is_one_sentence_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UnknownName, match="did you mean 'wandb'"):
        check_trackers(["wandbb"])
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package trackio: pip install 'demur\[track"):
        check_trackers(["trackio"])
    for command in (("train", "majority"), ("study", "--quick")):
        given = ["demur", *command, "--out", str(tmp_path / "x"), "--track", "wandb"]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert capfd.readouterr().err == (
            "demur: --track wandb needs the package wandb: pip install 'demur[wandb]'\n"
        )
        assert not (tmp_path / "x").exists()


def test_a_tracker_that_cannot_start_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> trackers.Tracker:
        raise RuntimeError("api_key not configured.\nlong story")

    monkeypatch.setitem(trackers.KNOWN, "wandb", refuse)
    run = RunFolder(tmp_path / "run", {"seed": 0})
    with (
        pytest.raises(ConfigError, match=r"wandb cannot start \(api_key not configured\); log in"),
        tracked(run, ["wandb"], "t"),
    ):
        pass
    assert not run.followers
