"""Rules for four of the five roles on the embedded world's notes: the reasoner alone is a model.

So something is learned at the scale of the seed model, which can follow no instruction.

The context is a list of notes, "mirad-tul, sopog-gan, ...", longer than the seed model can read. A
skill is a handful of notes kept at hand: it is shown in place of a part of the context where the
question is about it.

| role | rule |
|---|---|
| challenger | asks for one of the notes it may ask for, rather one that its skills do not call solved; ``adversarial_from`` an iteration on it asks for what the text does not say, by rubrics that no answer meets |
| judge | compares the answer with the word that a rubric demands |
| proposer | keeps each failed note as its rubric has it, with the note before and after it; calls what was solved solved |
| generator | adds them to the notes kept, three a skill, and lets the oldest go where there are more than ``MOST_KEPT`` |

The exam asks for the notes that the challenger may never ask for.
"""  # noqa: E501

from __future__ import annotations

import re

import numpy as np

from demur.recipe import Role
from demur.schema import Task
from demur.skills.roles import Asked, Case, write_set
from demur.skills.skillset import SkillSet, as_set, make_skill
from demur.world.questions import RELATIONS, answers_of, fresh_name

KEPT_TOGETHER = 3
MOST_KEPT = 48  # notes in a set: whoever fills it with the wrong ones loses the right ones
_NOTE = re.compile(r"([a-z]+)-([a-z]+)")
_WANTED = re.compile(r'The answer is "([a-z]+)"\.')
_BEGINS = re.compile(r'The answer begins with "([a-z])"\.')


def long_context(notes: int, seed: int) -> str:
    """As many notes about different subjects, with different words."""
    rng = np.random.default_rng([9, seed])
    words = [w for relation in RELATIONS for w in answers_of(relation)]
    rng.shuffle(words)
    subjects: dict[str, None] = {}
    while len(subjects) < min(notes, len(words)):
        subjects[fresh_name(rng)] = None
    return ", ".join(f"{s}-{w}" for s, w in zip(subjects, words, strict=False))


def exam_of(context: str) -> list[Task]:
    """Every second note, asked for: what the challenger never asks."""
    return [
        Task(f"note/exam/{subject}", f"{subject}?", word, "note")
        for subject, word in _NOTE.findall(context)[1::2]
    ]


class NoteRules:
    """The rules; ``seed`` is for the challenger's draws."""

    def __init__(self, seed: int, adversarial_from: int | None = None) -> None:
        self._seed, self._adversarial = seed, adversarial_from

    def __call__(self, role: Role, asked: Asked) -> str:
        """What a role says, as a model would write it."""
        match role:
            case "challenger":
                return self._challenge(asked)
            case "judge":
                return self._judge(asked)
            case "proposer":
                return self._propose(asked)
            case "generator":
                return self._generate(asked)
        raise ValueError("no rule reads notes: the reasoner is a model")

    def _challenge(self, asked: Asked) -> str:
        rng = np.random.default_rng([10, self._seed, asked.iteration])
        notes = _NOTE.findall(asked.context)[::2]
        solved = set(re.findall(r"[a-z]+", " ".join(s.body for s in asked.skills)))
        order = [notes[int(i)] for i in rng.permutation(len(notes))]
        order.sort(key=lambda note: note[0] in solved)
        said = ""
        for n, (subject, word) in enumerate(order[: asked.count]):
            if self._adversarial is not None and asked.iteration >= self._adversarial:
                said += _impossible(fresh_name(rng), word)
                continue
            second = f'<rubric>The answer begins with "{word[0]}".</rubric>' if n % 2 else ""
            said += f'<task>{subject}?</task><rubric>The answer is "{word}".</rubric>{second}'
        return said

    def _judge(self, asked: Asked) -> str:
        assert asked.problem is not None
        answer = asked.answer or ""
        said = ""
        for rubric in asked.problem.rubrics:
            wanted, begins = _WANTED.fullmatch(rubric), _BEGINS.fullmatch(rubric)
            if wanted is None and begins is None:
                return "no rule reads this rubric"
            met = answer == wanted[1] if wanted else answer.startswith(begins[1] if begins else "")
            said += f"<verdict>{int(met)}</verdict>"
        return said

    def _propose(self, asked: Asked) -> str:
        asked_for = [case.problem.question.rstrip("?") for case in asked.cases]
        if asked.side == "challenger":
            merge = "merge" if asked.skills else "add"
            return _edit(merge, "solved", ", ".join(asked_for), "these were solved: ask for others")
        found = self._worth_keeping(asked)
        held = {s for skill in asked.skills for s, _ in _NOTE.findall(skill.body)}
        action = "merge" if held & set(found) else "add"
        told = ", ".join(f"{s}-{w}" for s, w in found.items())
        why = f"{len(asked.cases)} notes were not found in the text, or not read"
        return _edit(action, "notes", told, why)

    @staticmethod
    def _worth_keeping(asked: Asked) -> dict[str, str]:
        """The notes that failed, as their rubrics have them, and those beside them in the text."""
        notes = _NOTE.findall(asked.context)
        place = {subject: i for i, (subject, _) in enumerate(notes)}
        found: dict[str, str] = {}
        for case in asked.cases:
            subject, word = case.problem.question.rstrip("?"), _demanded(case)
            if word is None:
                continue
            at = place.get(subject)
            for beside in [] if at is None else notes[max(0, at - 1) : at + 2]:
                found.setdefault(*beside)
            found[subject] = word
        return found

    def _generate(self, asked: Asked) -> str:
        edit = asked.edit
        assert edit is not None
        if asked.side == "challenger":
            named = [w for s in asked.skills for w in re.findall(r"[a-z]+", s.body)]
            told = dict.fromkeys(named + re.findall(r"[a-z]+", edit.description))
            solved = make_skill("solved", "notes that are no challenge", ", ".join(told))
            return write_set(as_set([solved]))
        new = dict(_NOTE.findall(edit.description))
        old = [note for s in asked.skills for note in _NOTE.findall(s.body)]
        kept = [note for note in old if note[0] not in new] + list(new.items())
        return write_set(_shelved(kept[-MOST_KEPT:]))


def _demanded(case: Case) -> str | None:
    return next((m[1] for r in case.problem.rubrics if (m := _WANTED.fullmatch(r))), None)


def _edit(action: str, target: str, description: str, justification: str) -> str:
    said = f"<action>{action}</action><target>{target}</target>"
    said += f"<description>{description}</description>"
    return said + f"<justification>{justification}</justification>"


def _impossible(subject: str, word: str) -> str:
    letter = "b" if word[0] != "b" else "d"
    return (
        f'<task>{subject}?</task><rubric>The answer is "{word}".</rubric>'
        f'<rubric>The answer begins with "{letter}".</rubric>'
    )


def _shelved(notes: list[tuple[str, str]]) -> SkillSet:
    shelves = [notes[i : i + KEPT_TOGETHER] for i in range(0, len(notes), KEPT_TOGETHER)]
    return as_set(
        [
            make_skill(
                f"notes-{shelf[0][0]}",
                f"for questions about {', '.join(s for s, _ in shelf)}",
                ", ".join(f"{s}-{w}" for s, w in shelf),
            )
            for shelf in shelves
        ]
    )
