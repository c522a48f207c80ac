"""The five roles, in words: what each is shown, and how what it says is read.

| role | is shown | says |
|---|---|---|
| challenger | the context, its side's skills | tasks, each with rubrics |
| reasoner | the context, its side's skills, a task | an answer |
| judge | a task, an answer, the rubrics | for each rubric whether it is met |
| proposer | the context, its side's skills, the cases | what to add or to merge |
| generator | its side's skills, that proposal, the cases | the complete new set of skills |

Nothing that one side has learned is shown to the other. What cannot be read is counted and has no
effect: an unread verdict is no verdict, and an unread set leaves the skills as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from demur.reply import block
from demur.schema import Dialogue, Message
from demur.skills.skillset import SkillSet, as_set, choose, make_skill

Side = Literal["reasoner", "challenger"]
MOST_RUBRICS = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """A task about the context, and what an answer must meet."""

    question: str
    rubrics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A problem, what the reasoner answered, and the judge's verdict on each rubric."""

    problem: Problem
    answer: str | None = None
    met: tuple[bool | None, ...] = ()

    @property
    def solved(self) -> bool | None:
        """Whether every rubric is met; ``None`` without a verdict that settles it."""
        if self.answer is None or False in self.met:
            return False
        return None if None in self.met or not self.met else True

    @property
    def pass_rate(self) -> float:
        """The share of rubrics met."""
        return sum(m is True for m in self.met) / max(1, len(self.met))


@dataclass(frozen=True, slots=True)
class Edit:
    """What a proposer wants done to its side's skills."""

    action: Literal["add", "merge"]
    target: str
    description: str
    justification: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that a role may be shown; each is shown its part only."""

    context: str = ""
    side: Side = "reasoner"
    skills: SkillSet = ()
    count: int = 0
    iteration: int = 0
    problem: Problem | None = None
    answer: str | None = None
    cases: tuple[Case, ...] = ()
    edit: Edit | None = None
    reading: int | None = None
    world: bool = False


@dataclass
class Cut:
    """What did not fit into the reasoner's prompts: skills left out, contexts cut short."""

    prompts: int = 0
    skills: int = 0
    contexts: int = 0


def challenge(asked: Asked) -> Dialogue:
    """Ask for tasks."""
    return _say(
        f"You write tasks that test whether somebody has understood a text. Write {asked.count} "
        "tasks that can be answered from the text alone and that a careless reader fails. Write "
        "each as <task>the question</task>, followed by one or more conditions that a right answer "
        "meets, each of which can be checked by itself: <rubric>the condition</rubric>.",
        f"{_shown(asked.skills)}The text:\n{asked.context}",
    )


def reason(asked: Asked, cut: Cut) -> Dialogue:
    """Ask for an answer; ``reading`` bounds the characters of skills and context together.

    Skills get half of it at most. In the embedded world the notes of chosen skills come first, and
    then the context's as far as there is room.
    """
    assert asked.problem is not None
    question, context = asked.problem.question, asked.context
    room = asked.reading
    most = len(_all(asked.skills)) if room is None else room // 2
    skills, left = choose(asked.skills, question, most)
    cut.prompts += 1
    cut.skills += left
    if asked.world:
        known = [note for s in skills for note in s.body.split(", ")]
        rest = [note for note in context.split(", ") if note not in known]
        kept = known + rest
        while room is not None and len(kept) > 1 and len(", ".join(kept)) > room:
            kept.pop()
        cut.contexts += len(kept) < len(known) + len(rest)
        return (Message("user", f"{', '.join(kept)}. {question}"),)
    if room is not None and len(context) > room - len(_all(skills)):
        context = context[: max(0, room - len(_all(skills)))]
        cut.contexts += 1
    return _say(
        "You answer a question about a text. You may think first. Give your final answer as "
        "<answer>the answer</answer>.",
        f"{_shown(skills)}The text:\n{context}\n\nThe question: {question}",
    )


def judge(asked: Asked) -> Dialogue:
    """Ask whether an answer meets each rubric."""
    assert asked.problem is not None
    rubrics = "\n".join(f"{n}. {r}" for n, r in enumerate(asked.problem.rubrics, start=1))
    return _say(
        "You check an answer against conditions, strictly. For each condition, in order, write "
        "<verdict>1</verdict> if the answer meets it and <verdict>0</verdict> if it does not.",
        f"Question: {asked.problem.question}\nAnswer: {asked.answer}\nConditions:\n{rubrics}",
    )


def propose(asked: Asked) -> Dialogue:
    """Ask what one side should learn from its cases."""
    aim = (
        "The tasks below were failed. Find what they have in common, and say what skill would have "
        "helped to answer them"
        if asked.side == "reasoner"
        else "The tasks below were solved. Find why they were easy, and say what skill would help "
        "to write tasks that are harder, and still fair"
    )
    return _say(
        f"You look after a set of skills: short advice that others read before they work. {aim}. "
        "Reply with <action>add</action> or <action>merge</action>, <target>the skill's "
        "name</target>, <description>what it should say</description> and "
        "<justification>why</justification>.",
        f"{_shown(asked.skills)}{_cases(asked.cases)}\n\nThe text:\n{asked.context}",
    )


def generate(asked: Asked) -> Dialogue:
    """Ask for the complete new set of skills of one side."""
    assert asked.edit is not None
    e = asked.edit
    return _say(
        "You keep a set of skills: short advice that others read before they work. Write the "
        "complete new set, which replaces the old one: whatever you leave out is forgotten. Write "
        'each skill as <skill name="its-name" description="when to use it">the advice</skill>.',
        f"{_shown(asked.skills)}The change wanted: {e.action} {e.target}: {e.description}\n"
        f"Because: {e.justification}\n\n{_cases(asked.cases)}",
    )


def _say(system: str, user: str) -> Dialogue:
    return (Message("system", system), Message("user", user))


def _all(skills: SkillSet) -> str:
    return "\n\n".join(f"## {s.name}\n{s.description}\n{s.body}" for s in skills)


def _shown(skills: SkillSet) -> str:
    return f"The skills so far:\n\n{_all(skills)}\n\n" if skills else ""


def _cases(cases: Sequence[Case]) -> str:
    shown = []
    for case in cases:
        met = {True: "met", False: "not met", None: "not judged"}
        rubrics = zip(case.problem.rubrics, case.met, strict=True) if case.met else ()
        lines = "".join(f"\n- {met[ok]}: {rubric}" for rubric, ok in rubrics)
        shown.append(f"Task: {case.problem.question}\nAnswer: {case.answer}{lines}")
    return "\n\n".join(shown)


# -- reading --------------------------------------------------------------------------------------


def read_problems(text: str, most: int) -> list[Problem]:
    """The tasks that have a question and at least one rubric, ``most`` of them."""
    found = []
    for part in text.split("<task>")[1 : 4 * most + 1]:
        question, closed, rest = part.partition("</task>")
        rubrics = [r.strip() for r in _blocks(rest, "rubric")][:MOST_RUBRICS]
        if closed and question.strip() and any(rubrics):
            found.append(Problem(question.strip(), tuple(r for r in rubrics if r)))
    return found[:most]


def read_answer(text: str) -> str | None:
    """What stands in the first answer's tags; ``None`` where nothing does."""
    span = block(text, "answer", 0)
    return (text[span[0] : span[1]].strip() or None) if span else None


def read_verdicts(text: str, rubrics: int) -> tuple[bool | None, ...]:
    """A verdict for each rubric; ``None`` for each one if there are not as many, all 0 or 1."""
    said = [v.strip() for v in _blocks(text, "verdict")]
    if len(said) != rubrics or any(v not in ("0", "1") for v in said):
        return (None,) * rubrics
    return tuple(v == "1" for v in said)


def read_edit(text: str) -> Edit | None:
    """The proposal; ``None`` where its action, target or description is missing."""
    said = {tag: next(iter(_blocks(text, tag)), "").strip() for tag in Edit.__dataclass_fields__}
    action = said["action"].casefold()
    if action not in ("add", "merge") or not said["target"] or not said["description"]:
        return None
    kind: Literal["add", "merge"] = "add" if action == "add" else "merge"
    return Edit(kind, said["target"], said["description"], said["justification"])


_SKILL = re.compile(r'<skill name="([^"<>]*)" description="([^"<>]*)">')


def read_set(text: str) -> SkillSet | None:
    """The complete set; ``None`` where there is no skill in it."""
    found = []
    for head in _SKILL.finditer(text):
        end = text.find("</skill>", head.end())
        if end >= 0:
            found.append(make_skill(head[1], head[2], text[head.end() : end]))
    return as_set(found) or None


def write_set(skills: SkillSet) -> str:
    """A set as a generator writes it."""
    return "".join(
        f'<skill name="{s.name}" description="{s.description}">{s.body}</skill>' for s in skills
    )


def _blocks(text: str, tag: str) -> list[str]:
    found, at = [], 0
    while (span := block(text, tag, at)) is not None:
        found.append(text[span[0] : span[1]])
        at = span[1]
    return found
