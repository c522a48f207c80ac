"""Runs side by side: every job once, calls relayed, a mistake or a dead worker stops the rest."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from demur.errors import ConfigError, TrainingError
from demur.workers import run_jobs


class Heard:
    """Notes what workers report."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def note(self, word: str, pid: int) -> None:
        self.calls.append((word, pid))


def double(name: str, number: int, listener: Any) -> int:
    listener.note(name, os.getpid())
    time.sleep(0.2)
    return 2 * number


def stumble(name: str, number: int, listener: Any) -> int:
    if number == 1:
        raise ConfigError(f"{name} is wrong")
    time.sleep(30)
    return number


def die(name: str, number: int, listener: Any) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(30)
    return number


def test_one_worker_stays_in_this_process() -> None:
    heard = Heard()
    found = dict(run_jobs(double, [("a", 1), ("b", 2)], heard, 1, 1))
    assert found == {("a", 1): 2, ("b", 2): 4}
    assert heard.calls == [("a", os.getpid()), ("b", os.getpid())]


def test_two_workers_share_the_jobs_and_relay_their_calls() -> None:
    heard = Heard()
    jobs = [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
    found = dict(run_jobs(double, jobs, heard, 2, 1))
    assert found == {job: 2 * job[1] for job in jobs}
    assert sorted(word for word, _ in heard.calls) == ["a", "b", "c", "d"]
    workers = {pid for _, pid in heard.calls}
    assert len(workers) == 2 and os.getpid() not in workers


@pytest.mark.parametrize(("run", "said"), [(stumble, "a is wrong"), (die, "--resume")])
def test_trouble_in_one_worker_ends_all(run: Any, said: str) -> None:
    started = time.monotonic()
    with pytest.raises(TrainingError, match=said):
        list(run_jobs(run, [("a", 1), ("b", 2)], Heard(), 2, 1))
    assert time.monotonic() - started < 25  # the other worker, asleep, was not waited for
