"""One round of a one-turn game: dialogues out, episodes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from demur.errors import ConfigError
from demur.reply import parse
from demur.schema import (
    Claim,
    Completion,
    Dialogue,
    Episode,
    Group,
    Policy,
    Reply,
    Sampling,
    Task,
    Turn,
    Unparsed,
)

RESPONDER = "responder"
Draw = tuple[Task, Claim | None]
"""A task, and what is claimed beside it."""


def draw_json(task: Task, claim: Claim | None) -> str:
    """A draw as one cell of a table; ``draw_of`` reads it back whole."""
    return json.dumps({"task": asdict(task), "claim": None if claim is None else asdict(claim)})


def draw_of(text: str) -> Draw:
    """The draw that ``draw_json`` wrote; raises ``ConfigError`` for any other text."""
    try:
        said = json.loads(text)
        task, claim = said["task"], said["claim"]
        asked = Task(**{**task, "options": tuple(task["options"])})
        if claim is None:
            return asked, None
        votes, record = tuple(tuple(vote) for vote in claim["votes"]), claim["record"]
        told = {"votes": votes, "record": None if record is None else tuple(record)}
        return asked, Claim(**{**claim, **told})
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            "a cell of the column exchange holds no task and claim; export the run again, or write "
            "it with demur.games.rounds.draw_json"
        ) from None


def read(completion: Completion) -> Reply | Unparsed:
    """Parse a completion; one without a whole reply says if it ran out of tokens, or never came."""
    reply = parse(completion.text)
    if isinstance(reply, Unparsed) and completion.stop == "length":
        return Unparsed(f"ran into the token limit ({reply.reason})")
    if completion.stop == "lost":
        return Unparsed("the server did not answer in time")
    return reply


def next_round(sampling: Sampling) -> Sampling:
    """The same way of speaking with other random numbers, for a game's next round."""
    return replace(sampling, seed=(sampling.seed + 1) % 2**31)


def one_round(
    policy: Policy,
    draws: Sequence[Draw],
    dialogues: Sequence[Dialogue],
    n: int,
    sampling: Sampling,
) -> list[Group]:
    """Ask once for all dialogues and wrap each completion as a one-turn episode."""
    groups = []
    answers = policy.reply(dialogues, n, sampling)
    for (task, claim), dialogue, completions in zip(draws, dialogues, answers, strict=True):
        episodes = tuple(
            Episode(task, claim, (Turn(RESPONDER, dialogue, c, read(c)),)) for c in completions
        )
        groups.append(Group(task, claim, episodes))
    return groups
