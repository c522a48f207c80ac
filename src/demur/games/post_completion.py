"""Post-completion learning: after its reply a policy assesses it, and nobody waits for that.

The reply ends with a token of its own, at which inference stops; in training the policy goes on and
says how probable it is that the reply is right and that it can be read (PCL, arXiv 2507.20252).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from demur.games import objection
from demur.games.rounds import Draw, read
from demur.reply import POST_COMPLETION, read_assessment
from demur.schema import (
    Assessment,
    Completion,
    Dialogue,
    Episode,
    Group,
    Message,
    Policy,
    Reply,
    Sampling,
    Turn,
    Unparsed,
)

ASSESSOR = "assessor"


def play(policy: Policy, draws: Sequence[Draw], n: int, sampling: Sampling) -> list[Group]:
    """Groups of replies, as in ``objection``, and after them one group of assessments for each.

    A reply that ran into the token limit never came to its end: there is nothing to go on from, and
    its assessment is one that could not be read.
    """
    replied = objection.play(policy, draws, n, sampling)
    ended = [(g, e) for g, group in enumerate(replied) for e in group.episodes if _ended(e)]
    asked = [after(e) for _, e in ended]
    said = policy.reply(asked, 1, sampling) if asked else []
    found = iter([row[0] for row in said])
    return [*replied, *(_assessed(i, group, found) for i, group in enumerate(replied))]


def after(episode: Episode) -> Dialogue:
    """The dialogue with the policy's own reply, from which it goes on."""
    turn = episode.turns[-1]
    return (*turn.dialogue, Message("assistant", turn.completion.text + POST_COMPLETION))


def read_after(completion: Completion, reply: Reply | Unparsed) -> Assessment | Unparsed:
    """The assessment of a reply."""
    found = read_assessment(completion.text)
    if found is None:
        return Unparsed("there is no assessment of two probabilities")
    return Assessment(*found, read=isinstance(reply, Reply))


def _ended(episode: Episode) -> bool:
    return episode.turns[-1].completion.stop == "stop"


def _assessed(number: int, group: Group, found: Iterator[Completion]) -> Group:
    episodes = []
    for episode in group.episodes:
        turn = episode.turns[-1]
        if _ended(episode):
            said = next(found)
            verdict = read_after(said, read(turn.completion))
        else:
            said, verdict = Completion("", stop="length"), Unparsed("the reply had no end")
        turns = (*episode.turns, Turn(ASSESSOR, after(episode), said, verdict))
        episodes.append(Episode(episode.task, episode.claim, turns))
    return Group(group.task, group.claim, tuple(episodes), about=number)
