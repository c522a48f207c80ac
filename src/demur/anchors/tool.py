"""A tool: something that works the answer out from the question, as CRITIC's tools do (2305.11738).

A tool is handed the text of the question and nothing else: no task, no truth, no claim. What it
finds is compared with each answer; where it finds nothing, it abstains. Where the answer itself is
a program, the tool runs it on the examples that the question shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from demur.anchors import sandbox
from demur.anchors.base import answers_of
from demur.anchors.calculator import NotArithmetic, calculate, expression_in, written
from demur.errors import UnknownName
from demur.schema import Group, Verdict
from demur.tasks.grader import same

Lookup = Callable[[str], str | None]
TOOLS = ("calculator", "facts", "any", "python")


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
    after the other. With "python" answers are programs and are right if they do what the examples
    in the question show, tried in a sandbox. The budget counts what was put to a tool, each
    question (or program) once.
    """

    name = "tool"
    outside = True

    def __init__(self, lookup: Lookup, use: str = "any") -> None:
        if use not in TOOLS:
            raise UnknownName("tool", use, TOOLS)
        chosen: Mapping[str, Lookup] = {"calculator": calculator, "facts": lookup}
        self._tools = [tool for name, tool in chosen.items() if use in (name, "any")]
        self._runs = use == "python"
        if self._runs:
            sandbox.check()
        self._found: dict[str, str | None] = {}
        self._passed: dict[tuple[str, str], bool | None] = {}

    @property
    def budget(self) -> int:
        """Distinct questions and programs tried so far."""
        return len(self._found) + len(self._passed)

    def judge(self, group: Group) -> list[Verdict]:
        """Compare each answer with what the tool finds, or run it."""
        question, answers = group.task.question, answers_of(group)
        if self._runs:
            tried = [None if a is None else self._try(question, a) for a in answers]
            shown = bool(sandbox.examples_of(question))
            return [float(bool(passed)) if shown else None for passed in tried]
        if question not in self._found:
            said = (tool(question) for tool in self._tools)
            self._found[question] = next((answer for answer in said if answer is not None), None)
        found = self._found[question]
        if found is None:
            return [None] * len(answers)
        grader = group.task.grader
        return [0.0 if a is None else float(same(a, found, grader)) for a in answers]

    def _try(self, question: str, program: str) -> bool | None:
        if (question, program) not in self._passed:
            self._passed[question, program] = sandbox.passes(program, question)
        return self._passed[question, program]

    def state(self) -> dict[str, object]:
        """What was asked and found."""
        passed = [[*key, value] for key, value in self._passed.items()]
        return {"found": dict(self._found), "passed": passed}

    def restore(self, state: dict[str, object]) -> None:
        """Take up what was found."""
        self._found = dict(cast("Mapping[str, str | None]", state["found"]))
        rows = cast("Sequence[tuple[str, str, bool | None]]", state["passed"])
        self._passed = {(question, program): value for question, program, value in rows}
