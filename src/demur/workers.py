"""Runs of a study side by side: one process a worker, each with its share of the cores.

Small models scale badly over threads, so two runs of one thread each finish sooner than one run of
two threads after another. A worker lives for the whole study (imports are paid once), takes one run
after another, and reports over a pipe what the display shows.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from demur.errors import DemurError, TrainingError

Run = Callable[..., Any]


class _Relay:
    """Stands in for a display inside a worker: every method call goes over the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self._pipe.send(("call", name, args))


class _CtrlC:
    """Makes sure that Ctrl-C is heard.

    Python raises KeyboardInterrupt wherever it happens to be; inside a finaliser that is printed
    and forgotten, and a loop that is mostly finalisers would run on. So the signal is noted too.
    """

    def __init__(self) -> None:
        self.heard = False
        self._before: Any = None

    def __enter__(self) -> _CtrlC:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.heard:
            raise KeyboardInterrupt


def run_jobs(
    run: Run, jobs: Sequence[tuple[Any, ...]], listener: Any, workers: int, threads: int
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Give (job, ``run(*job, listener)``) for every job as it ends; in this process if one worker.

    ``run`` must be importable and jobs picklable. A mistake or a dead worker stops everything; what
    the runs wrote stays, so a study resumes.
    """
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, run(*job, listener)
        return
    waiting = list(jobs)[::-1]
    pipes: dict[Connection, tuple[BaseProcess, tuple[Any, ...]]] = {}
    with _CtrlC() as ctrl_c:
        try:
            for _ in range(min(workers, len(jobs))):
                pipe, process = _start(run, threads)
                pipes[pipe] = (process, waiting.pop())
                pipe.send(pipes[pipe][1])
            while pipes:
                ctrl_c.check()
                for ready in wait(list(pipes), timeout=1.0):
                    assert isinstance(ready, Connection)
                    pipe = ready
                    process, job = pipes[pipe]
                    done, result = _hear(pipe, job, listener)
                    if not done:
                        continue
                    yield job, result
                    if waiting:
                        pipes[pipe] = (process, waiting.pop())
                        pipe.send(pipes[pipe][1])
                    else:
                        pipe.send(None)
                        del pipes[pipe]
                        process.join()
        finally:
            for process, _ in pipes.values():
                process.terminate()
                process.join()


def _start(run: Run, threads: int) -> tuple[Connection, BaseProcess]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process: BaseProcess = context.Process(target=_work, args=(run, theirs, threads), daemon=True)
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if main:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for the parent alone
    try:
        process.start()
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    theirs.close()
    return ours, process


def _hear(pipe: Connection, job: tuple[Any, ...], listener: Any) -> tuple[bool, Any]:
    """Take one message of a worker: whether its job is done, and the result if it is."""
    try:
        kind, *payload = pipe.recv()
    except EOFError:
        raise TrainingError(
            f"the worker of {job[0]} died (killed, or out of memory); go on with --resume, or "
            "with --workers 1"
        ) from None
    if kind == "call":
        name, args = payload
        getattr(listener, name)(*args)
        return False, None
    if kind == "mistake":
        raise TrainingError(payload[0])
    return True, payload[0]


def _work(run: Run, pipe: Connection, threads: int) -> None:
    """A worker's life: take a job, run it, send the result, until there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    from demur.policies.local import quiet_libraries

    quiet_libraries(threads)
    relay = _Relay(pipe)
    while (job := pipe.recv()) is not None:
        try:
            result = run(*job, relay)
        except (DemurError, OSError) as error:
            pipe.send(("mistake", str(error)))
            return
        pipe.send(("result", result))
