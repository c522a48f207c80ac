"""Distilled private deliberation: learn to give in one pass what K silent samples would conclude.

Claim-free samples give each task a modal answer and its share; a few labels turn shares into
probabilities; with the source's disclosed reliability, Bayes' rule gives the best reply to a claim
and the probability that it is right. The demonstrations made here state exactly that, after a
thought, where one is asked for, that says what the policy itself would answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from demur.games.phrases import ask, object_to
from demur.games.private import Private
from demur.learners.samples import expected_score, token_spans
from demur.measure.listener import Situation, bayes
from demur.measure.shares import ShareTable
from demur.reply import parse, render
from demur.schema import Claim, Completion, Dialogue, Sample, Task


class Voice(Protocol):
    """What demonstrations need of a policy: its tokens."""

    @property
    def level_ids(self) -> tuple[int, ...] | None:
        """The tokens of the eleven levels, where each is a single one."""
        ...

    def encode(self, dialogue: Dialogue, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Prompt ids, and the ids of a reply with the token that ends it."""
        ...

    def pieces(self, ids: Sequence[int], text: str | None = None) -> list[str]:
        """The text that each token adds; ``text`` is all of it, where that is known."""
        ...


def conclude(
    task: Task, claim: Claim | None, state: Private, shares: ShareTable
) -> tuple[str, float] | None:
    """The deliberated reply and its probability; ``None`` without a readable private answer."""
    if state.modal is None:
        return None
    belief = float(shares(state.share))
    return bayes(Situation(task, claim, state.modal, belief, belief))


def demonstrations(
    draws: Sequence[tuple[Task, Claim | None]],
    private: Mapping[str, Private],
    shares: ShareTable,
    voice: Voice,
    rng: np.random.Generator,
    score_weight: float = 0.0,
    thought_from: float = 0.0,
) -> list[Sample]:
    """One supervised sample a draw: the prompt, and the deliberated reply at its level.

    The probability is rounded at random to one of its two neighbouring levels so that the stated
    confidences are right on average. With ``score_weight`` (and a vocabulary whose levels are
    single tokens) the confidence is taught by its expected Brier loss instead, for the probability
    itself: replies that look alike then state their mean, and not the level most often seen.

    With ``thought_from`` above 0 a reply opens with what the policy itself thinks: its modal answer
    if at least that share of the private samples gave it, else an empty thought. What is known or
    not then stands in the text, where the answer and the confidence after it can be read off.
    """
    samples: list[Sample] = []
    level_ids = voice.level_ids
    for index, (task, claim) in enumerate(draws):
        concluded = conclude(task, claim, private[task.id], shares)
        if concluded is None:
            continue
        answer, probability = concluded
        tenths = np.clip(probability, 0.0, 1.0) * 10
        level = (np.floor(tenths) + (rng.random() < tenths % 1)) / 10
        thought = None
        if thought_from > 0:
            own = private[task.id]
            thought = own.modal if own.share >= thought_from else ""
        text = render(answer, float(level), thought)
        prompt_ids, completion_ids = voice.encode(
            ask(task) if claim is None else object_to(task, claim), text
        )
        said = Completion(text, completion_ids)
        spans = token_spans(said, parse(text), voice.pieces)
        term = expected_score(said, spans, probability, level_ids, score_weight)
        samples.append(
            Sample(
                prompt_ids=prompt_ids,
                completion_ids=completion_ids,
                logprobs=(0.0,) * len(completion_ids),
                advantages=tuple(
                    0.0 if term is not None and span == "confidence" else 1.0 for span in spans
                ),
                group=index,
                expected_score=term,
            )
        )
    return samples
