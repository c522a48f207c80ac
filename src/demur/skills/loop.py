"""Skills without gradients: five roles around a context, iteration by iteration.

    challenger ──> problems ──> reasoner ──> answers ──> judge ──> cases
        ^                          ^                                 │
        │ solved cases             │ failed cases                    │
        └──── proposer, generator ─┴─────────────────────────────────┘

The loop of Ctx2Skill (arXiv 2604.27660, section 3): no weight changes, and what is learned can be
read. Failed cases change only what the reasoner is told, solved ones only what the challenger is,
and each change replaces a side's whole set. In the end cross-time replay chooses the iteration
whose skills are kept.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from demur.errors import ConfigError
from demur.policies.local import LocalPolicy
from demur.recipe import Role, Skills
from demur.runlog import RunFolder, append_line, atomic_write
from demur.schema import Dialogue, Policy, Sampling, Stats, Task
from demur.skills import replay
from demur.skills import roles as r
from demur.skills.calls import Journal
from demur.skills.notes import NoteRules, exam_of, long_context
from demur.skills.skillset import SkillSet, write_skills
from demur.tasks.file import load_tasks
from demur.tasks.grader import same

ITERATIONS = "iterations.jsonl"
CHOSEN = "chosen"
TEMPLATE_TOKENS = 400  # what instructions and a question take of a model's context, amply
CALM = ("reasoner", "judge")  # roles without chance: the same answer whenever it is asked
Load = Callable[[str, str], Policy]
WORDS: dict[Role, Callable[[r.Asked], Dialogue]] = {
    "challenger": r.challenge,
    "judge": r.judge,
    "proposer": r.propose,
    "generator": r.generate,
}
"""What each role is shown; the reasoner's words also depend on what fits."""


class NothingPosed(UserWarning):
    """A run of skills had no task to learn from."""


@dataclass
class SkillRun:
    """One run of the loop: who plays, what about, and the journal."""

    config: Skills
    policy: Policy
    run: RunFolder
    load: Load
    seed: int
    journal: Journal = field(init=False)
    context: str = field(init=False)
    exam: list[Task] = field(init=False)
    cut: r.Cut = field(default_factory=r.Cut)
    unread: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.context, self.exam = material(self.config, self.seed)
        self.journal = Journal(self.run.path)
        self._rules = NoteRules(self.seed, self.config.adversarial_from)
        self._loaded: dict[tuple[str, str], Policy] = {}
        voice = self._voice("reasoner")
        self._reading = self.config.reading or _room(voice, self.context, self.config)

    def go(self, watch: Callable[[Stats], None] = lambda _: None) -> dict[str, Any]:
        """All iterations, and the replay; gives the contents of ``replay.json``."""
        started = time.perf_counter()
        reasoner: SkillSet = ()
        challenger: SkillSet = ()
        history: list[SkillSet] = []
        played: list[list[r.Case]] = []
        self.run.rewind()
        atomic_write(self.run.path / ITERATIONS, "")
        before = self._examined(0, ())
        for iteration in range(1, self.config.iterations + 1):
            self.cut, self.unread = r.Cut(), {}
            first = self.journal.number + 1
            cases = self._cases(iteration, reasoner, self._problems(iteration, challenger))
            played.append(cases)
            failed = tuple(c for c in cases if c.solved is False)
            solved = tuple(c for c in cases if c.solved)
            one, reasoner = self._learn(iteration, "reasoner", reasoner, failed)
            two, challenger = self._learn(iteration, "challenger", challenger, solved)
            history.append(reasoner)
            home = self.run.path / "skills" / f"iteration-{iteration}"
            write_skills(reasoner, home / "reasoner")
            write_skills(challenger, home / "challenger")
            stats: Stats = {
                "step": iteration,
                "seconds": time.perf_counter() - started,
                "problems": len(cases),
                "solved": len(solved),
                "failed": len(failed),
                "unjudged": sum(c.solved is None for c in cases),
                "skills": len(reasoner),
                "skill_characters": sum(len(s.body) for s in reasoner),
                "challenger_skills": len(challenger),
                **{f"unread_{role}": float(n) for role, n in sorted(self.unread.items())},
            }
            score = self._examined(iteration, reasoner)
            stats |= {} if score is None else {"exam": score, "exam_before": before or 0.0}
            stats |= {
                "skills_left_out": self.cut.skills / max(1, self.cut.prompts),
                "contexts_cut": self.cut.contexts / max(1, self.cut.prompts),
                "calls": float(self.journal.number),
            }
            self._trace(iteration, first, cases, one, two)
            self.run.log({**stats, "stage": "skills"})
            watch(stats)
        if not any(played):
            warnings.warn(
                "not one task of the challenger could be read, so nothing was learned; give the "
                "role to a model that can follow its instructions (skills.roles.challenger.model)",
                NothingPosed,
                stacklevel=2,
            )
        return self._replay(history, played)

    # -- one iteration ----------------------------------------------------------------------------

    def _problems(self, iteration: int, skills: SkillSet) -> list[r.Problem]:
        asked = r.Asked(self.context, "challenger", skills, self.config.tasks, iteration)
        text = self._call("challenger", "challenger", iteration, [asked])[0]
        problems = r.read_problems(text, self.config.tasks)
        self._missed("challenger", self.config.tasks - len(problems))
        return problems

    def _cases(
        self, iteration: int, skills: SkillSet, problems: Sequence[r.Problem]
    ) -> list[r.Case]:
        said = self._answers(iteration, skills, problems)
        self._missed("reasoner", said.count(None))
        cases = [r.Case(p, answer) for p, answer in zip(problems, said, strict=True)]
        judged = [i for i, case in enumerate(cases) if case.answer is not None]
        shown = [
            r.Asked(problem=cases[i].problem, answer=cases[i].answer, iteration=iteration)
            for i in judged
        ]
        for i, text in zip(judged, self._call("judge", "reasoner", iteration, shown), strict=True):
            met = r.read_verdicts(text, len(cases[i].problem.rubrics))
            self._missed("judge", int(None in met))
            cases[i] = replace(cases[i], met=met)
        return cases

    def _answers(
        self, iteration: int, skills: SkillSet, problems: Sequence[r.Problem]
    ) -> list[str | None]:
        """What the reasoner answers with these skills; ``None`` where it cannot be read."""
        asked = [
            r.Asked(
                self.context,
                "reasoner",
                skills,
                iteration=iteration,
                problem=problem,
                reading=self._reading,
                world=not self.config.context,
            )
            for problem in problems
        ]
        return [r.read_answer(t) for t in self._call("reasoner", "reasoner", iteration, asked)]

    def _learn(
        self, iteration: int, side: r.Side, skills: SkillSet, cases: tuple[r.Case, ...]
    ) -> tuple[r.Edit | None, SkillSet]:
        """One side's proposal and its new set; without cases, or if unread, all stays as it was."""
        if not cases:
            return None, skills
        asked = r.Asked(self.context, side, skills, iteration=iteration, cases=cases)
        edit = r.read_edit(self._call("proposer", side, iteration, [asked])[0])
        self._missed("proposer", int(edit is None))
        if edit is None:
            return None, skills
        wanted = replace(asked, edit=edit)
        made = r.read_set(self._call("generator", side, iteration, [wanted])[0])
        self._missed("generator", int(made is None))
        return edit, skills if made is None else made

    def _examined(self, iteration: int, skills: SkillSet) -> float | None:
        """The reasoner's accuracy in the exam; ``None`` without one."""
        if not self.exam:
            return None
        said = self._answers(iteration, skills, [r.Problem(t.question, ()) for t in self.exam])
        right = [
            answer is not None and task.truth is not None and same(answer, task.truth, task.grader)
            for task, answer in zip(self.exam, said, strict=True)
        ]
        return sum(right) / len(right)

    # -- replay -----------------------------------------------------------------------------------

    def _replay(
        self, history: Sequence[SkillSet], played: Sequence[Sequence[r.Case]]
    ) -> dict[str, Any]:
        hard = [c for cases in played if (c := replay.hardest(cases)) is not None]
        easy = [c for cases in played if (c := replay.easiest(cases)) is not None]
        rows: list[dict[str, Any]] = []
        on_hard: list[float] = []
        on_easy: list[float] = []
        for iteration, skills in enumerate(history, start=1):
            first = self.journal.number + 1
            on_hard.append(self._rho(iteration, skills, hard))
            on_easy.append(self._rho(iteration, skills, easy))
            calls = [first, self.journal.number]
            shown = {"rho_hard": on_hard[-1], "rho_easy": on_easy[-1], "calls": calls}
            rows.append({"iteration": iteration, **shown})
        chosen = replay.best(on_hard, on_easy)
        write_skills(history[chosen], self.run.path / "skills" / CHOSEN)
        found = {
            "hard": [_problem(c) for c in hard],
            "easy": [_problem(c) for c in easy],
            "iterations": rows,
            "chosen": chosen + 1,
        }
        self.run.write_json("replay.json", found)
        return found

    def _rho(self, iteration: int, skills: SkillSet, probes: Sequence[r.Case]) -> float:
        cases = self._cases(iteration, skills, [case.problem for case in probes])
        return replay.rho([case.solved is True for case in cases])

    # -- calls ------------------------------------------------------------------------------------

    def _call(
        self, role: Role, side: r.Side, iteration: int, asked: Sequence[r.Asked]
    ) -> list[str]:
        rules = self.config.player(role).by == "rules"
        dialogues = [self._words(role, each) for each in asked]
        temperature = 0.0 if role in CALM else self.config.temperature

        def answer(shown: Sequence[Dialogue]) -> list[str]:
            if rules:
                return [self._rules(role, each) for each in asked]
            seed = 100_000 * self.seed + self.journal.number
            sampling = Sampling(temperature, self.config.max_tokens, seed)
            return [c[0].text for c in self._voice(role).reply(shown, 1, sampling)]

        by = "rules" if rules else self._voice(role).name
        return self.journal.call(role, side, iteration, by, dialogues, answer)

    def _words(self, role: Role, asked: r.Asked) -> Dialogue:
        return r.reason(asked, self.cut) if role == "reasoner" else WORDS[role](asked)

    def _voice(self, role: Role) -> Policy:
        player = self.config.player(role)
        if not player.model and not player.endpoint:
            return self.policy
        key = (player.model, player.endpoint)
        if key not in self._loaded:
            self._loaded[key] = self.load(*key)
        return self._loaded[key]

    def _missed(self, role: Role, count: int) -> None:
        self.unread[role] = self.unread.get(role, 0) + count

    def _trace(
        self,
        iteration: int,
        first: int,
        cases: Sequence[r.Case],
        reasoner: r.Edit | None,
        challenger: r.Edit | None,
    ) -> None:
        """One line that says what came of which calls."""
        line = {
            "iteration": iteration,
            "calls": [first, self.journal.number],
            "cases": [
                {**_problem(c), "answer": c.answer, "met": list(c.met), "solved": c.solved}
                for c in cases
            ],
            "edits": {"reasoner": _edit(reasoner), "challenger": _edit(challenger)},
        }
        append_line(self.run.path / ITERATIONS, line)


def material(config: Skills, seed: int) -> tuple[str, list[Task]]:
    """The context and the exam; raises ``ConfigError`` for an empty or unreadable context."""
    if not config.context:
        context = long_context(config.notes, seed)
        return context, exam_of(context)
    try:
        with open(config.context, encoding="utf-8") as file:
            context = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read the context {config.context} ({why}); check skills.context"
        ) from error
    if not context:
        raise ConfigError(
            f"the context {config.context} is empty; skills.context names a text to learn from"
        )
    return context, load_tasks(config.exam) if config.exam else []


def _room(policy: Policy, context: str, config: Skills) -> int | None:
    """How many characters of a text like the context a local model has room for."""
    if not isinstance(policy, LocalPolicy):
        return None
    tokens = len(policy.tokenizer(context, add_special_tokens=False)["input_ids"])
    room = policy.context - config.max_tokens - TEMPLATE_TOKENS
    return max(1, int(room * len(context) / max(1, tokens)))


def _problem(case: r.Case) -> dict[str, Any]:
    return {"question": case.problem.question, "rubrics": list(case.problem.rubrics)}


def _edit(edit: r.Edit | None) -> dict[str, str] | None:
    return None if edit is None else {f: getattr(edit, f) for f in r.Edit.__dataclass_fields__}
