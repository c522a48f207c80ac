"""Arguing: an objector is told which side to take and puts a claim into words; the other replies.

Both seats may be the same policy. The side is that of the claim that was drawn: where it is right
the objector argues for the right answer, else for a wrong one, whichever it likes and in whatever
words. It is paid by what the responder then says, the responder as everywhere by the anchor.

With ``past`` of its groups the objector is an earlier version of the policy, which is not trained:
against the present alone, two seats can chase each other in a circle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from demur.errors import ConfigError
from demur.games import objection
from demur.games.phrases import argue
from demur.games.rounds import Draw, next_round
from demur.reply import block
from demur.schema import (
    Claim,
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
from demur.tasks.grader import same

OBJECTOR = "objector"
LONGEST = 2000  # characters of an argument
_TAGS = re.compile(r"<\|.*?\|>|</?(?:think|answer|confidence|post_completion|self_assessment)>")


class Argue:
    """``arguments`` of the objector for every draw with a claim; draws without one are asked alone.

    Every ``remember`` steps the policy as it is joins ``opponents``, of which the first and the
    ``keep`` - 1 latest are kept.
    """

    def __init__(
        self, arguments: int = 4, past: float = 0.5, remember: int = 20, keep: int = 6
    ) -> None:
        for name, value, least in (
            ("arguments", arguments, 2),
            ("remember", remember, 1),
            ("keep", keep, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"argue.{name} must be {least} or more, not {value!r}")
        if not 0 <= past <= 1:
            raise ConfigError(f"argue.past must be from 0 to 1, not {past!r}")
        self.arguments, self.past, self.remember, self.keep = arguments, past, remember, keep
        self.opponents: list[Policy] = []

    def meet(self, opponent: Policy) -> None:
        """Let a past version argue from now on."""
        self.opponents.append(opponent)
        if len(self.opponents) > self.keep:
            del self.opponents[1 if self.keep > 1 else 0]

    def __call__(
        self, policy: Policy, draws: Sequence[Draw], n: int, sampling: Sampling
    ) -> list[Group]:
        """One group of arguments a draw with a claim, one of replies an argument or lone draw."""
        rng = np.random.default_rng(sampling.seed)
        argued = [(task, bool(claim.right)) for task, claim in draws if claim is not None]
        alone = [task for task, claim in draws if claim is None]
        by: list[Policy | None] = [
            self.opponents[int(rng.integers(len(self.opponents)))]
            if self.opponents and rng.random() < self.past
            else None
            for _ in argued
        ]
        said: dict[int, list[Completion]] = {}
        for voice in dict.fromkeys(by):
            mine = [i for i, who in enumerate(by) if who is voice]
            asked = [argue(*argued[i]) for i in mine]
            found = (voice or policy).reply(asked, self.arguments, sampling)
            said |= dict(zip(mine, found, strict=True))
        moves: list[Group] = []
        replied: list[Draw] = []
        for i, (task, side) in enumerate(argued):
            episodes, led = [], []
            for completion in said[i]:
                move = read_argument(completion, side)
                led.append(len(argued) + len(replied) if isinstance(move, Move) else None)
                if isinstance(move, Move):
                    replied.append((task, claim_of(task, move)))
                turn = Turn(OBJECTOR, argue(task, side), completion, move)
                episodes.append(Episode(task, None, (turn,)))
            moves.append(Group(task, None, tuple(episodes), tuple(led), trained=by[i] is None))
        replied += [(task, None) for task in alone]
        answered = objection.play(policy, replied, n, next_round(sampling)) if replied else []
        return [*moves, *answered]


def read_argument(completion: Completion, side: bool) -> Move | Unparsed:
    """The answer argued for and the words; words that hold a tag could pass for another turn."""
    text = completion.text.lstrip()
    span = block(text, "answer", 0)
    if span is None or not text.startswith("<answer>"):
        return Unparsed("there is no answer to argue for")
    answer = text[slice(*span)].strip()
    words = text[span[1] + len("</answer>") :].strip()
    if not answer or not words:
        return Unparsed("there is no answer to argue for" if not answer else "there is no argument")
    if len(words) > LONGEST:
        return Unparsed("the argument is too long")
    if _TAGS.search(answer) or _TAGS.search(words):
        return Unparsed("the argument holds a tag")
    if completion.stop == "length":
        return Unparsed("ran into the token limit (the argument has no end)")
    return Move(answer, words, side)


def claim_of(task: Task, move: Move) -> Claim:
    """What the responder is told; ``right`` is whether the answer argued for is."""
    right = None if task.truth is None else same(move.answer, task.truth, task.grader)
    return Claim("user", move.answer, right=right, text=move.text)


def arguments_for(
    objector: Policy, wanted: Sequence[tuple[Task, bool]], sampling: Sampling
) -> list[Claim | None]:
    """One claim of an objector for each task and side; ``None`` where it could not be read."""
    found = objector.reply([argue(task, side) for task, side in wanted], 1, sampling)
    moves = [read_argument(c[0], side) for c, (_, side) in zip(found, wanted, strict=True)]
    return [
        claim_of(task, move) if isinstance(move, Move) else None
        for move, (task, _) in zip(moves, wanted, strict=True)
    ]
