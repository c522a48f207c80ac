"""The run folder: made, refused, resumed, killed half-way, and on a full disk."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from demur import runlog
from demur.errors import EndpointError, RunFolderError
from demur.runlog import RunFolder, atomic_write, read_metrics

CONFIG = {
    "name": "t",
    "seed": 0,
    "tasks": {"families": ["sum"], "file": None},
    "stages": [{"kind": "policy_gradient", "steps": 7, "limit": None}],
}
SOURCES = str(Path(runlog.__file__).parents[1])


def child(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own that can be killed without harm."""
    return subprocess.run(
        [sys.executable, "-c", "import os, signal\nfrom pathlib import Path\n" + code],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=60,
    )


def names(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_a_new_folder_holds_its_settings(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "run", CONFIG)
    written = tomllib.loads((run.path / "config.toml").read_text())
    assert written == {
        "name": "t",
        "seed": 0,
        "tasks": {"families": ["sum"]},
        "stages": [{"kind": "policy_gradient", "steps": 7}],
    }
    assert names(tmp_path) == {"a/run/config.toml"}
    assert not os.stat(run.path / "config.toml").st_mode & 0o111


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", CONFIG)
    with pytest.raises(RunFolderError, match="already holds a run; add --resume"):
        RunFolder(tmp_path / "run", CONFIG)
    with pytest.raises(RunFolderError, match="is not empty and holds no run"):
        RunFolder(tmp_path, CONFIG, resume=True)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError, match="name another --out"):
            RunFolder(path, CONFIG)


def test_resume_needs_the_same_settings(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", CONFIG, resume=True)
    RunFolder(tmp_path / "run", json.loads(json.dumps(CONFIG)), resume=True)
    stages = [{"kind": "policy_gradient", "steps": 9}]
    with pytest.raises(RunFolderError, match=r"stages\.0\.steps was 7 and is now 9"):
        RunFolder(tmp_path / "run", CONFIG | {"stages": stages}, resume=True)
    with pytest.raises(RunFolderError, match="seed was 0 and is now not set"):
        RunFolder(tmp_path / "run", CONFIG | {"seed": None}, resume=True)
    with pytest.raises(RunFolderError, match=r"extra was not set and is now \[\]"):
        RunFolder(tmp_path / "run", CONFIG | {"extra": []}, resume=True)
    (tmp_path / "run" / "config.toml").write_text("name = ")
    with pytest.raises(RunFolderError, match="cannot be read"):
        RunFolder(tmp_path / "run", CONFIG, resume=True)


def test_a_folder_killed_before_its_settings_can_be_made(tmp_path: Path) -> None:
    (tmp_path / ".config.toml.123.tmp").write_text("na")
    RunFolder(tmp_path, CONFIG)
    assert (tmp_path / "config.toml").exists()


def test_json_and_metrics_hold_null_for_what_is_no_number(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)
    run.log({"step": 0, "stage": "a", "reward": math.nan, "loss": np.float32(0.5)})
    run.log({"step": np.int64(1), "reward": math.inf, "é": None})
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 0, "stage": "a", "reward": None, "loss": 0.5},
        {"step": 1, "reward": None, "é": None},
    ]
    path = run.write_json("study.json", {"a": [math.nan, (1, np.float64("inf"))], "b": np.eye(1)})
    assert json.loads(path.read_text()) == {"a": [None, [1, None]], "b": [[1.0]]}


def test_episodes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)
    rows = [{"task_id": "a", "claim": None, "turn": 0}, {"task_id": "b", "claim": "5", "turn": 0}]
    assert run.episodes(3, []) is None
    path = run.episodes(12, rows)
    assert path == tmp_path / "episodes" / "step-000012.parquet"
    assert pq.read_table(path).to_pylist() == rows


def fill(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_text(folder.name)


def test_checkpoints_are_kept_in_numeric_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)
    assert run.latest_checkpoint() is None
    for step in (8, 9, 10, 100):
        run.checkpoint(step, fill)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [10, 100]
    assert {folder.name for folder in (tmp_path / "checkpoints").iterdir()} == {
        "step-10",
        "step-100",
    }
    latest = run.latest_checkpoint()
    assert latest == (100, tmp_path / "checkpoints" / "step-100")
    assert (latest.path / "sub" / "weights").read_text() == ".tmp-step-100"
    assert json.loads((latest.path / "complete.json").read_text()) == {"step": 100}
    again = run.checkpoint(100, lambda folder: (folder / "again").touch() and None)
    assert again == latest
    assert names(latest.path) == {"again", "complete.json"}
    with pytest.raises(ValueError, match="keep"):
        run.checkpoint(1, fill, keep=0)


def test_incomplete_checkpoints_are_ignored(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)
    run.checkpoint(5, fill)
    (tmp_path / "checkpoints" / "step-7").mkdir()
    (tmp_path / "checkpoints" / ".tmp-step-9").mkdir()
    (tmp_path / "checkpoints" / ".tmp-step-9" / "complete.json").touch()
    (tmp_path / "checkpoints" / "step-x").mkdir()
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [5]
    run.checkpoint(9, fill)
    assert names(tmp_path / "checkpoints" / "step-9") == {"sub/weights", "complete.json"}


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)
    run.checkpoint(5, fill)

    def fails(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.checkpoint(6, fails)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-5"]


def test_what_a_writer_says_of_an_engine_is_left_as_it_is(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", {})

    def gone(folder: Path) -> None:
        raise EndpointError("the engine has gone away; go on with --resume")

    with pytest.raises(EndpointError, match=r"^the engine has gone away; go on with --resume$"):
        run.checkpoint(1, gone)
    assert run.checkpoints() == []


def test_rewind_cuts_what_will_be_done_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)
    assert run.rewind() is None
    for step in range(6):
        run.log({"step": step})
        if step == 3:
            run.checkpoint(step, fill)
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 6, "rew')
    again = RunFolder(tmp_path, CONFIG, resume=True)
    assert len(read_metrics(path)) == 6
    assert again.rewind() == (3, tmp_path / "checkpoints" / "step-3")
    assert [line["step"] for line in read_metrics(path)] == [0, 1, 2, 3]
    again.log({"step": 4})
    assert path.read_text().splitlines()[-1] == '{"step": 4}'


def test_without_a_checkpoint_everything_is_done_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)
    run.log({"step": 0})
    assert run.rewind() is None
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_only_the_last_line_may_be_torn(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(RunFolderError, match="line 2 is not a JSON object"):
        read_metrics(path)
    path.write_bytes(b'{"step": 0}\n{"a": "\xc3')
    assert read_metrics(path) == [{"step": 0}]


def test_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """kill -9 after half of the data, and again after all of it but before the rename."""
    for moment in ("write", "fsync"):
        path = tmp_path / f"{moment}.json"
        atomic_write(path, "old")
        died = child(
            f"from demur import runlog\nreal = os.{moment}\n"
            "def dies(fd, *data):\n"
            "    real(fd, *[part[:len(part) // 2] for part in data])\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            f"os.{moment} = dies\nrunlog.atomic_write({str(path)!r}, 'new' * 1000)"
        )
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert path.read_text() == "old"
        assert len(list(tmp_path.glob(f".{path.name}.*"))) == 1  # it died where it was meant to
        atomic_write(path, "new")
        assert path.read_text() == "new"


def test_killed_in_the_middle_of_a_checkpoint_and_of_a_line(tmp_path: Path) -> None:
    died = child(
        "from demur.runlog import RunFolder\n"
        f"run = RunFolder({str(tmp_path / 'run')!r}, {CONFIG})\n"
        "fill = lambda folder: (folder / 'weights').write_text('whole') and None\n"
        "def dies(folder):\n"
        "    (folder / 'weights').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "for step in range(3):\n    run.log({'step': step})\n"
        "run.checkpoint(1, fill)\n"
        "open(run.path / 'metrics.jsonl', 'a').write('{\"step\": 3, ')\n"
        "run.checkpoint(2, dies)\n"
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (tmp_path / "run" / "checkpoints" / ".tmp-step-2" / "weights").read_text() == "half"
    run = RunFolder(tmp_path / "run", CONFIG, resume=True)
    checkpoint = run.rewind()
    assert checkpoint is not None and checkpoint.step == 1
    assert (checkpoint.path / "weights").read_text() == "whole"
    assert [line["step"] for line in read_metrics(run.path / "metrics.jsonl")] == [0, 1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run", CONFIG)
    run.write_json("study.json", {"old": 1})
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunFolderError, match=r"disk is full; free some space.*--resume"):
        run.log({"step": 0})

    real = os.open

    def full(path: str | Path, flags: int, mode: int = 0o777, **where: int | None) -> int:
        opened = real(path, flags, mode, **where)  # the temporary file is really made
        if not flags & os.O_CREAT:
            return opened
        os.close(opened)
        return real("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(RunFolderError, match="disk is full") as caught:
        run.write_json("study.json", {"new": 2})
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert "\n" not in str(caught.value)
    with pytest.raises(RunFolderError, match="disk is full"):
        run.checkpoint(3, fill)
    monkeypatch.undo()
    assert json.loads((run.path / "study.json").read_text()) == {"old": 1}
    (run.path / "metrics.jsonl").unlink()
    assert names(run.path) == {"config.toml", "study.json"}
    assert run.latest_checkpoint() is None


def test_other_libraries_reports_of_a_full_disk(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)

    def writer(folder: Path) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    with pytest.raises(RunFolderError, match="disk is full"):
        run.checkpoint(1, writer)

    def bug(folder: Path) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run.checkpoint(1, bug)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_file_size_limit_leaves_the_old_file_whole(tmp_path: Path) -> None:
    ended = child(
        "import resource\nfrom demur.errors import RunFolderError\n"
        "from demur.runlog import RunFolder\n"
        f"run = RunFolder({str(tmp_path / 'run')!r}, {CONFIG})\n"
        "run.write_json('study.json', 'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n    run.write_json('study.json', 'x' * 10000)\n"
        "except RunFolderError as error:\n    print(error)\n"
    )
    assert "cannot be used: file too large" in ended.stdout, ended.stderr
    assert json.loads((tmp_path / "run" / "study.json").read_text()) == "old"
    assert names(tmp_path / "run") == {"config.toml", "study.json"}
