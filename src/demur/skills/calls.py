"""The journal of a skills run: every call of every role, what it was shown and what it said.

``calls.jsonl`` holds one line a call, in order, and each line is on disk before the run goes on. A
run that was killed goes through its iterations again and takes what is in the journal from there,
so that no call is made twice; a call that would be another one than the journal's is refused. Every
verdict, skill and figure names the calls it came from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from demur.errors import RunFolderError
from demur.recipe import Role
from demur.runlog import append_line, atomic_write, dialogue_json, read_metrics
from demur.schema import Dialogue
from demur.skills.roles import Side

CALLS = "calls.jsonl"
Answer = Callable[[Sequence[Dialogue]], list[str]]


class Journal:
    """The calls of one run folder; ``number`` is that of the last one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CALLS
        self._old: list[dict[str, Any]] = []
        if self.path.exists():
            self._old = read_metrics(self.path)  # without a torn last line
            atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in self._old))
        self.number = 0
        self.asked = 0

    def call(
        self,
        role: Role,
        side: Side,
        iteration: int,
        by: str,
        dialogues: Sequence[Dialogue],
        answer: Answer,
    ) -> list[str]:
        """What a role says to each dialogue: from the journal, or asked now and written there.

        Nothing is asked where there are no dialogues.
        """
        if not dialogues:
            return []
        self.number += 1
        shown = [json.loads(dialogue_json(d)) for d in dialogues]
        line = {
            "call": self.number,
            "iteration": iteration,
            "role": role,
            "side": side,
            "by": by,
            "dialogues": shown,
        }
        if self.number <= len(self._old):
            before = self._old[self.number - 1]
            if {k: before.get(k) for k in line} != line:
                raise RunFolderError(
                    f"{self.path}, line {self.number} holds another call than this run makes; "
                    "name another --out"
                )
            return list(before["texts"])
        texts = answer(dialogues)
        self.asked += len(texts)
        append_line(self.path, line | {"texts": texts}, synced=True)
        return texts
