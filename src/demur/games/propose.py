"""Proposing: one seat asks questions, the other answers them (SQLM, arXiv 2508.03682).

Both seats are the same policy. Every question that is new and well-formed is answered ``n`` times
by the responder, as in ``solo``; those replies are the group that the question led to. A question
asked before leads to nothing and is worth 0: without a memory over the whole run a proposer comes
back to what once paid. A question that cannot be read is masked, as a price on it can spiral, and
so is one that an evaluation may ask (``kept``): nothing evaluated is trained on.

``recognise`` knows the questions of the embedded world, so that their truth can be measured; nobody
is paid by it. Any other text is a question without a known truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from demur.errors import ConfigError
from demur.games import solo
from demur.games.phrases import Style, propose
from demur.games.rounds import Draw, next_round
from demur.reply import block, opening_thought
from demur.schema import (
    Completion,
    Episode,
    Group,
    Move,
    Policy,
    Sampling,
    Task,
    Turn,
    Unparsed,
)
from demur.tasks.grader import canonical, get_grader

PROPOSER = "proposer"
TOPICS = ("a sum", "a product")
LONGEST = 2000  # characters of a question


def read_question(text: str) -> Move | Unparsed:
    """The question that a proposal asks, in whatever language, after what it thinks."""
    _, start = opening_thought(text)
    span = None if start < 0 else block(text, "answer", start)
    if span is None:
        return Unparsed("there is no question")
    question = text[slice(*span)].strip()
    if not question or len(question) > LONGEST:
        return Unparsed("the question is empty" if not question else "the question is too long")
    return Move(question, question)


class Propose:
    """Questions of each topic in turn.

    ``brief`` is the language of the embedded world, and then only its questions can be read.
    ``grader`` is the equivalence of answers to others. Without ``memory`` a question may come back.
    """

    def __init__(
        self,
        recognise: Callable[[str], Task | None],
        kept: Callable[[Task], bool],
        topics: Sequence[str] = TOPICS,
        style: Style = "brief",
        grader: str = "number",
        memory: bool = True,
    ) -> None:
        if isinstance(topics, str) or not topics:
            raise ConfigError("propose.topics must be a list of one topic or more")
        if style not in ("brief", "plain"):
            raise ConfigError(f"propose.style must be 'brief' or 'plain', not {style!r}")
        get_grader(grader)
        self.topics, self.style, self.grader = tuple(topics), style, grader
        self.recognise, self.kept, self.memory = recognise, kept, memory
        self._asked: set[str] = set()

    def draws(self, count: int) -> list[Draw]:
        """``count`` requests, the topics in turn."""
        made: list[Draw] = []
        for i in range(count):
            topic = self.topics[i % len(self.topics)]
            made.append((Task(f"topic/{topic}", topic, None, "topic", source=self.style), None))
        return made

    def __call__(
        self, policy: Policy, draws: Sequence[Draw], n: int, sampling: Sampling
    ) -> list[Group]:
        """One group of questions a topic, then one group of replies a question that is played."""
        if not draws:
            return []
        wanted = Counter(task for task, _ in draws)
        asked = [propose(topic.question, self.style) for topic in wanted]
        said = policy.reply(asked, max(wanted.values()), sampling)
        moves: list[Group] = []
        played: list[Draw] = []
        for topic, dialogue, completions in zip(wanted, asked, said, strict=True):
            episodes, led = [], []
            for completion in completions[: wanted[topic]]:
                move = self.read(completion)
                new = None
                if isinstance(move, Move):
                    new = self._task(move.answer)
                    if self.kept(new):
                        new = None
                    elif self._repeats(new):
                        move, new = replace(move, outcome=0.0), None
                led.append(None if new is None else len(wanted) + len(played))
                if new is not None:
                    played.append((new, None))
                turn = Turn(PROPOSER, dialogue, completion, move)
                episodes.append(Episode(topic, None, (turn,)))
            moves.append(Group(topic, None, tuple(episodes), tuple(led)))
        answered = solo.play(policy, played, n, next_round(sampling)) if played else []
        return [*moves, *answered]

    def read(self, completion: Completion) -> Move | Unparsed:
        """The question of a proposal, if it is one that can be played."""
        move = read_question(completion.text)
        if isinstance(move, Unparsed) or self.style == "plain" or self.recognise(move.answer):
            return move
        return Unparsed("the question is not one of the world's")

    def _task(self, question: str) -> Task:
        known = self.recognise(question)
        if known is not None:
            return known
        return Task(f"proposed/{question}", question, None, "proposed", self.grader, "proposed")

    def _repeats(self, task: Task) -> bool:
        key = canonical(task.question)
        if key in self._asked:
            return True
        if self.memory:
            self._asked.add(key)
        return False

    def state(self) -> dict[str, Any]:
        """The questions asked so far."""
        return {"asked": sorted(self._asked)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the questions asked so far."""
        self._asked = set(cast("list[str]", state["asked"]))
