"""Users who correct: people who say afterwards what the answer should have been.

Unlike approval a correction names an answer, and unlike the truth it can be wrong. Corrections can
teach sycophancy as well (the ones who correct are the ones who made the claim), so the verdict is
no more than the corrector's reliability allows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from demur.anchors.base import answers_of
from demur.errors import ConfigError, TaskFileError
from demur.schema import Group, Task, Verdict
from demur.tasks.grader import same

Perturb = Callable[[Task, int], str]


class Corrections:
    """How likely an answer is right, given what a user of stated reliability put in its place.

    The corrected answer is right with probability ``reliability``; any other one shares what that
    lacks among ``alternatives`` answers. Corrections come from ``log``, a JSONL file of one object
    a line: "corrected_answer", and "question" or the "dialogue" that was corrected (a list of
    {"role", "content"}, whose first user turn is the question); the last correction of a question
    counts, and with ``who`` only those of that person. Without a log they come from a simulated
    user, who is right at that rate and otherwise slips. A question that nobody corrected is not
    judged. The budget counts corrections used, each question once.
    """

    name = "corrections"
    outside = True

    def __init__(
        self,
        perturb: Perturb,
        reliability: float = 0.9,
        alternatives: int = 10,
        log: str = "",
        who: str = "",
        seed: int = 0,
    ) -> None:
        if not (isinstance(reliability, int | float) and 0.0 <= reliability <= 1.0):
            raise ConfigError(f"corrections.reliability must be from 0 to 1, not {reliability!r}")
        if not (isinstance(alternatives, int) and alternatives >= 1):
            raise ConfigError(f"corrections.alternatives must be 1 or more, not {alternatives!r}")
        self._perturb, self._reliability, self._seed = perturb, float(reliability), seed
        self._elsewhere = (1.0 - self._reliability) / alternatives
        self._log = _read(Path(log), who) if log else None
        self._used: set[str] = set()

    @property
    def budget(self) -> int:
        """Distinct questions whose corrections were used so far."""
        return len(self._used)

    def judge(self, group: Group) -> list[Verdict]:
        """Compare each answer with the corrected one."""
        corrected = self._corrected(group.task)
        if corrected is None:
            return [None] * len(group.episodes)
        self._used.add(group.task.question)
        verdicts: list[Verdict] = []
        for answer in answers_of(group):
            if answer is None:
                verdicts.append(0.0)
            else:
                agrees = same(answer, corrected, group.task.grader)
                verdicts.append(self._reliability if agrees else self._elsewhere)
        return verdicts

    def _corrected(self, task: Task) -> str | None:
        if self._log is not None:
            return self._log.get(_key(task.question))
        if task.truth is None:
            return None
        told = hashlib.blake2b(f"{self._seed}\0{task.id}".encode(), digest_size=8).digest()
        drawn = int.from_bytes(told, "big")
        if drawn / 2**64 < self._reliability:
            return task.truth
        return self._perturb(task, drawn)

    def state(self) -> dict[str, object]:
        """The questions whose corrections were used, sorted."""
        return {"used": sorted(self._used)}

    def restore(self, state: dict[str, object]) -> None:
        """Take them up."""
        self._used = set(cast("Iterable[str]", state["used"]))


def _key(question: str) -> str:
    return " ".join(question.split())


def _read(path: Path, who: str) -> dict[str, str]:
    """The last correction of each question; raises ``TaskFileError`` with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TaskFileError(
            f"cannot read the corrections in {path} ({error.strerror}); check corrections.log"
        ) from error
    except UnicodeDecodeError as error:
        raise TaskFileError(f"the corrections in {path} are not UTF-8 text") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            entry = _entry(path, number, line)
            if not who or entry.get("who") == who:
                found[_key(_question(entry))] = str(entry["corrected_answer"])
    if not found:
        raise TaskFileError(
            f"{path} holds no corrections" + (f" by {who!r}" if who else "") + ": write one JSON "
            'object a line with "question" and "corrected_answer"'
        )
    return found


def _entry(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    answer = entry.get("corrected_answer") if isinstance(entry, dict) else None
    if not isinstance(answer, str | int | float) or not _question(entry):
        raise TaskFileError(
            f'line {number} of {path} needs "corrected_answer" and "question" or "dialogue", '
            'as in {"question": "2+2?", "corrected_answer": "4", "who": "ann"}'
        )
    return cast("dict[str, Any]", entry)


def _question(entry: dict[str, Any]) -> str:
    """What was asked; empty where the entry does not say."""
    asked = entry.get("question")
    turns = entry.get("dialogue")
    if asked is None and isinstance(turns, list):
        said = (t.get("content") for t in turns if isinstance(t, dict) and t.get("role") == "user")
        asked = next(said, None)
    return asked if isinstance(asked, str) else ""
