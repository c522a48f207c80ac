"""A tool: something that works the answer out from the question, as CRITIC's tools do (2305.11738).

A tool is handed the text of the question and nothing else: no task, no truth, no claim. What it
finds is compared with each answer; where it finds nothing, it abstains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from demur.anchors.base import answers_of
from demur.anchors.calculator import NotArithmetic, calculate, expression_in, written
from demur.errors import UnknownName
from demur.schema import Group, Verdict
from demur.tasks.grader import same

Lookup = Callable[[str], str | None]
TOOLS = ("calculator", "facts", "any")


def calculator(question: str) -> str | None:
    """The value of the expression in a question; ``None`` if there is none that can be worked out.

    >>> calculator("12+30?"), calculator("Where does Bo live?")
    ('42', None)
    """
    expression = expression_in(question)
    if expression is None:
        return None
    try:
        return written(calculate(expression))
    except NotArithmetic:
        return None


class Tool:
    """1.0 for the answer that the tool finds, 0.0 for any other; abstains where it finds none.

    ``use`` is "calculator", "facts" (the run's table of known answers) or "any", which asks one
    after the other. The budget counts questions that were put to a tool, each once.
    """

    name = "tool"
    outside = True

    def __init__(self, lookup: Lookup, use: str = "any") -> None:
        if use not in TOOLS:
            raise UnknownName("tool", use, TOOLS)
        chosen: Mapping[str, Lookup] = {"calculator": calculator, "facts": lookup}
        self._tools = [tool for name, tool in chosen.items() if use in (name, "any")]
        self._found: dict[str, str | None] = {}

    @property
    def budget(self) -> int:
        """Distinct questions asked so far."""
        return len(self._found)

    def judge(self, group: Group) -> list[Verdict]:
        """Compare each answer with what the tool finds."""
        question = group.task.question
        if question not in self._found:
            tried = (tool(question) for tool in self._tools)
            self._found[question] = next((answer for answer in tried if answer is not None), None)
        found = self._found[question]
        if found is None:
            return [None] * len(group.episodes)
        return [
            0.0 if answer is None else float(same(answer, found, group.task.grader))
            for answer in answers_of(group)
        ]

    def state(self) -> dict[str, object]:
        """What was asked and found."""
        return {"found": dict(self._found)}

    def restore(self, state: dict[str, object]) -> None:
        """Take up what was found."""
        self._found = dict(cast("Mapping[str, str | None]", state["found"]))
