"""A third party as judge: another policy, which is asked whether an answer is right.

A judge that can reason is shown the answer and asked for a probability (``ask = "verify"``). A
judge that can only answer questions, as the seed model, answers the question itself, and its
replies are compared (``ask = "answer"``). Neither is shown the claim: who said what is not its
business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from demur.anchors.base import answers_of
from demur.anchors.past_version import share_of
from demur.errors import ConfigError, UnknownName
from demur.reply import parse
from demur.schema import Dialogue, Group, Message, Policy, Reply, Sampling, Task, Verdict

WAYS = ("verify", "answer")
Load = Callable[[str, str], Policy]
"""Another policy: a model's name or folder, and the address of its server, if it has one."""
Alone = Callable[[Policy, Sequence[Task], int], list[list[str | None]]]
"""What a policy answers each of some tasks alone, so many times each; ``None`` where unreadable."""

INSTRUCTION = (
    "You are shown a question and an answer to it. Say whether the answer is right, as "
    "<answer>yes</answer> or <answer>no</answer>, and then how sure you are of that, from 0 to 1, "
    "as <confidence>0.8</confidence>."
)


def verify(question: str, answer: str) -> Dialogue:
    """What a judge is asked about one answer."""
    return (
        Message("system", INSTRUCTION),
        Message("user", f"Question: {question}\nAnswer: {answer}\nIs this answer right?"),
    )


def probability(reply: Reply) -> float | None:
    """P(right) that a judge stated; ``None`` where it said neither yes nor no."""
    said = reply.answer.strip().strip(".").casefold()
    if said not in ("yes", "no"):
        return None
    return reply.confidence if said == "yes" else 1.0 - reply.confidence


class Judge:
    """P(right) by another policy: ``model`` is a folder or, at an ``endpoint``, a model's name.

    With ``ask = "verify"`` the mean probability of the ``samples`` verdicts that could be read;
    where none could, no verdict. With "answer" the share of its ``samples`` own replies that give
    this answer; where none could be read, it abstains. Each question and answer is put to it once.
    The budget counts the replies asked of it.
    """

    name = "judge"
    outside = True

    def __init__(
        self,
        load: Load,
        alone: Alone,
        model: str = "seed",
        endpoint: str = "",
        ask: str = "verify",
        samples: int = 4,
        max_tokens: int = 256,
        seed: int = 0,
    ) -> None:
        if ask not in WAYS:
            raise UnknownName("way to ask a judge", ask, WAYS)
        for option, value in (("samples", samples), ("max_tokens", max_tokens)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"judge.{option} must be 1 or more, not {value!r}")
        self._load, self._alone = load, alone
        self._model, self._endpoint = model, endpoint
        self._verify, self._samples = ask == "verify", samples
        self._sampling = Sampling(1.0, max_tokens, seed)
        self._policy: Policy | None = None
        self._own: dict[str, list[str | None]] = {}
        self._judged: dict[tuple[str, str], float | None] = {}
        self.budget = 0

    def prepare(self, groups: Sequence[Group]) -> None:
        """Ask about all of a round in one batch."""
        if self._verify:
            asked = {
                (g.task.id, answer): g.task.question
                for g in groups
                for answer in answers_of(g)
                if answer is not None and (g.task.id, answer) not in self._judged
            }
            dialogues = [verify(question, answer) for (_, answer), question in asked.items()]
            if dialogues:
                said = self._voice.reply(dialogues, self._samples, self._sampling)
                found = ([parse(c.text) for c in row] for row in said)
                self._judged |= {
                    key: _mean([probability(r) for r in row if isinstance(r, Reply)])
                    for key, row in zip(asked, found, strict=True)
                }
            self.budget += len(dialogues) * self._samples
        else:
            tasks = {g.task.id: g.task for g in groups if g.task.id not in self._own}
            if tasks:
                given = self._alone(self._voice, list(tasks.values()), self._samples)
                self._own |= dict(zip(tasks, given, strict=True))
            self.budget += len(tasks) * self._samples

    def judge(self, group: Group) -> list[Verdict]:
        """What the judge thinks of each answer."""
        self.prepare([group])
        answers = answers_of(group)
        if not self._verify:
            given = self._own[group.task.id]
            if all(answer is None for answer in given):
                return [None] * len(answers)
            return [share_of(answer, given, group.task) for answer in answers]
        verdicts = [None if a is None else self._judged[group.task.id, a] for a in answers]
        if all(v is None for v in verdicts):
            return [None] * len(answers)
        return [0.0 if a is None else v for a, v in zip(answers, verdicts, strict=True)]

    @property
    def _voice(self) -> Policy:
        if self._policy is None:
            self._policy = self._load(self._model, self._endpoint)
        return self._policy

    def state(self) -> dict[str, object]:
        """What was asked and said."""
        judged = [[task, answer, p] for (task, answer), p in self._judged.items()]
        return {"own": dict(self._own), "judged": judged, "budget": self.budget}

    def restore(self, state: dict[str, object]) -> None:
        """Take it up."""
        self._own = dict(cast("dict[str, list[str | None]]", state["own"]))
        rows = cast("list[tuple[str, str, float | None]]", state["judged"])
        self._judged = {(task, answer): p for task, answer, p in rows}
        self.budget = cast("int", state["budget"])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
