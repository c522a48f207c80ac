"""Distilled private deliberation: learn to give in one pass what K silent samples would conclude.

Claim-free samples give each task a modal answer and its share; a few labels turn shares into
probabilities; with the source's disclosed reliability, Bayes' rule gives the best reply to a claim
and the probability that it is right. The demonstrations made here state exactly that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from demur.games.phrases import ask, object_to
from demur.games.private import Private
from demur.measure.shares import ShareTable
from demur.policies.scripted import Situation, bayes, probability_right
from demur.reply import render
from demur.schema import Claim, Dialogue, Group, Reply, Sample, Task, Verdict

Encode = Callable[[Dialogue, str], tuple[tuple[int, ...], tuple[int, ...]]]


def conclude(
    task: Task, claim: Claim | None, state: Private, shares: ShareTable
) -> tuple[str, float] | None:
    """The deliberated reply and its probability; ``None`` without a readable private answer."""
    if state.modal is None:
        return None
    belief = float(shares(state.share))
    return bayes(Situation(task, claim, state.modal, belief, belief))


def shrink(
    group: Group, verdicts: Sequence[Verdict], state: Private, shares: ShareTable, prior: float
) -> list[Verdict]:
    """Verdicts drawn towards what deliberation expects of each reply.

    (1 - prior) v + prior P(reply right | private share, claim, reliability): the verdict on one
    claim is one throw of a coin whose bias deliberation knows, so the mixture has a quarter of the
    variance at prior = 1/2, for a bias of half the deliberation's own error. Abstentions, and
    replies that could not be read, stay as they are.
    """
    if state.modal is None or prior == 0:
        return list(verdicts)
    belief = float(shares(state.share))
    situation = Situation(group.task, group.claim, state.modal, belief, belief)
    shrunk: list[Verdict] = []
    for episode, verdict in zip(group.episodes, verdicts, strict=True):
        if verdict is None or not isinstance(episode.reply, Reply):
            shrunk.append(verdict)
        else:
            expected = probability_right(situation, episode.reply.answer)
            shrunk.append((1 - prior) * verdict + prior * expected)
    return shrunk


def demonstrations(
    draws: Sequence[tuple[Task, Claim | None]],
    private: Mapping[str, Private],
    shares: ShareTable,
    encode: Encode,
    rng: np.random.Generator,
    thought: bool = False,
) -> list[Sample]:
    """One supervised sample a draw: the prompt, and the deliberated reply at its level.

    The probability is rounded at random to one of its two neighbouring levels so that the stated
    confidences are right on average. With ``thought`` the reply first states, as its thought, the
    answer that the model gives when nobody speaks: recall is then learned from every claim, apart
    from what to do about it.
    """
    samples: list[Sample] = []
    for index, (task, claim) in enumerate(draws):
        reply = conclude(task, claim, private[task.id], shares)
        if reply is None:
            continue
        answer, probability = reply
        tenths = np.clip(probability, 0.0, 1.0) * 10
        level = (np.floor(tenths) + (rng.random() < tenths % 1)) / 10
        dialogue = ask(task) if claim is None else object_to(task, claim)
        own = private[task.id].modal if thought else None
        prompt_ids, completion_ids = encode(dialogue, render(answer, float(level), own))
        samples.append(
            Sample(
                prompt_ids=prompt_ids,
                completion_ids=completion_ids,
                logprobs=(0.0,) * len(completion_ids),
                advantages=(1.0,) * len(completion_ids),
                group=index,
            )
        )
    return samples
