"""Runs of a study side by side: one process a worker, each with its share of the cores.

Small models scale badly over threads, so two runs of one thread each finish sooner than one run of
two threads after another. A worker lives for the whole study (imports are paid once), takes one run
after another, and reports over a pipe what the display shows.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from demur.errors import DemurError, TrainingError

Run = Callable[..., Any]


class _Relay:
    """Stands in for a display inside a worker: every method call goes over the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self._pipe.send(("call", name, args))


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
    context = mp.get_context("spawn")
    waiting = list(jobs)[::-1]
    pipes: dict[Connection, tuple[BaseProcess, tuple[Any, ...]]] = {}
    try:
        for _ in range(min(workers, len(jobs))):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(
                target=_work, args=(run, theirs, threads), daemon=True
            )
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is ours alone
            try:
                process.start()
            finally:
                signal.signal(signal.SIGINT, before)
            theirs.close()
            job = waiting.pop()
            ours.send(job)
            pipes[ours] = (process, job)
        while pipes:
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Connection)
                process, job = pipes[pipe]
                try:
                    kind, *payload = pipe.recv()
                except EOFError:
                    raise TrainingError(
                        f"the worker of {job[0]} died (killed, or out of memory); go on with "
                        "--resume, or with --workers 1"
                    ) from None
                if kind == "call":
                    name, args = payload
                    getattr(listener, name)(*args)
                elif kind == "mistake":
                    raise TrainingError(payload[0])
                else:
                    yield job, payload[0]
                    if waiting:
                        job = waiting.pop()
                        pipe.send(job)
                        pipes[pipe] = (process, job)
                    else:
                        pipe.send(None)
                        del pipes[pipe]
                        process.join()
    finally:
        for process, _ in pipes.values():
            process.terminate()
            process.join()


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
