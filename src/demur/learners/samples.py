"""From played and paid groups to what a learner consumes.

Token spans come from the reply's character offsets: a token belongs to a span if any of its
characters lies there (a token that holds only a part of a character, to the span of that
character). The tags themselves belong to ``all`` (format), except that the token closing the
answer is the answer's: it decides where the answer ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import isfinite

from demur.learners.advantage import (
    Baseline,
    RunningMeans,
    group_advantages,
    token_advantages,
)
from demur.schema import (
    Assessment,
    Completion,
    Episode,
    ExpectedScore,
    FloatArray,
    Group,
    Reply,
    Reward,
    Said,
    Sample,
    Span,
    Verdict,
)

LEVELS = tuple(k / 10 for k in range(11))
Pieces = Callable[[Sequence[int], str | None], list[str]]
Losses = Callable[[Said, Verdict], float]


def token_spans(completion: Completion, reply: Said, pieces: Pieces) -> list[Span]:
    """The span of every completion token; all ``all`` where it is no reply that could be read."""
    count = len(completion.token_ids)
    spans: list[Span] = ["all"] * count
    if not isinstance(reply, Reply):
        return spans
    starts, ends = _offsets(completion, pieces)
    names: tuple[Span, ...] = ("answer", "confidence")
    for name in names:
        low, high = reply.spans[name]
        if name == "answer" and reply.thought is not None:
            low = 0  # a thought is paid as the answer that it leads to
        last = None
        for t in range(count):
            if starts[t] < high and ends[t] > low:
                spans[t] = name
                last = t
        if name == "answer" and last is not None and last + 1 < count:
            spans[last + 1] = name
    return spans


def _offsets(completion: Completion, pieces: Pieces) -> tuple[list[int], list[int]]:
    """Where each token's text starts and ends."""
    starts, ends, at = [], [], 0
    for piece in pieces(completion.token_ids, completion.text):
        starts.append(at)
        at += len(piece)
        ends.append(at)
    for t in reversed(range(len(starts) - 1)):
        if starts[t] == ends[t]:  # a part of the character that the next token completes
            ends[t] = ends[t + 1]
    return starts, ends


def answer_tokens(completion: Completion, reply: Said, pieces: Pieces) -> list[int]:
    """The tokens between the tags of the answer; none where it could not be read."""
    if not isinstance(reply, Reply) or "answer" not in reply.spans:
        return []
    low, high = reply.spans["answer"]
    starts, ends = _offsets(completion, pieces)
    return [t for t in range(len(starts)) if starts[t] < high and ends[t] > low]


def expected_score(
    completion: Completion,
    spans: Sequence[Span],
    verdict: Verdict,
    level_ids: tuple[int, ...] | None,
    weight: float,
) -> ExpectedScore | None:
    """The Brier loss of every level at the token that states the confidence.

    sum_k pi(k) (k/10 - v)^2: exact where the whole confidence is one level token (the seed model).
    ``None`` where the anchor abstained, the weight is 0, or no single level token states it; the
    sampled score of the reward then carries the credit alone.
    """
    if verdict is None or weight == 0 or level_ids is None:
        return None
    if spans.count("confidence") != 1:
        return None
    at = spans.index("confidence")
    if completion.token_ids[at] not in level_ids:
        return None
    return ExpectedScore(at, level_ids, _brier_of_levels(verdict), weight)


@lru_cache(1 << 12)
def _brier_of_levels(verdict: float) -> tuple[float, ...]:
    return tuple((level - verdict) ** 2 for level in LEVELS)


def assessed_score(
    completion: Completion,
    said: Said,
    verdict: Verdict,
    level_ids: tuple[int, ...] | None,
    losses: Losses,
) -> ExpectedScore | None:
    """What every level of P(right) would cost, at the token of an assessment that states it.

    ``None`` where the anchor abstained or no single level token states it.
    """
    if verdict is None or level_ids is None or not isinstance(said, Assessment):
        return None
    at = next((t for t, token in enumerate(completion.token_ids) if token in level_ids), None)
    if at is None or LEVELS[level_ids.index(completion.token_ids[at])] != said.right:
        return None
    costs = [losses(replace(said, right=level), verdict) for level in LEVELS]
    return ExpectedScore(at, level_ids, tuple(costs), 1.0)


def make_samples(
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    rewards: Sequence[Sequence[Reward | None]],
    *,
    pieces: Pieces,
    baseline: Baseline = "mean",
    baselines: Mapping[str, Baseline] | None = None,
    means: RunningMeans | None = None,
    level_ids: tuple[int, ...] | None = None,
    score_weight: float = 0.0,
    losses: Mapping[str, Losses] | None = None,
) -> list[Sample]:
    """One sample an episode, except where there is nothing to learn.

    A group in which nothing differs and nothing is scored is left out, and so is a reply that was
    paid nothing at all (the anchor abstained) or that is empty.

    ``baselines`` names another baseline for a seat; ``means`` holds those of ``rae``.

    With an expected score the confidence tokens take their credit from it alone: the sampled score
    is dropped there, as it would only add noise to the same gradient. ``losses`` gives one for the
    assessments of a seat: what saying this would cost.
    """
    samples: list[Sample] = []
    laid: dict[tuple[tuple[int, ...], str, bool], list[Span]] = {}  # replies repeat each other
    credit = _credit(groups, rewards, baseline, baselines or {}, means or RunningMeans())
    for index, (group, judged, paid) in enumerate(zip(groups, verdicts, rewards, strict=True)):
        if not group.trained:
            continue
        advantages = {span: values.tolist() for span, values in credit[index].items()}
        flat = not any(v and isfinite(v) for values in advantages.values() for v in values)
        for i, (episode, verdict) in enumerate(zip(group.episodes, judged, strict=True)):
            completion = episode.turns[-1].completion
            reward = paid[i]
            if reward is None or not reward.components or not completion.token_ids:
                continue
            said = episode.reply
            key = (completion.token_ids, completion.text, isinstance(said, Reply))
            spans = laid.get(key)
            if spans is None:
                spans = laid[key] = token_spans(completion, said, pieces)
            term = expected_score(completion, spans, verdict, level_ids, score_weight)
            if losses and group.seat in losses:
                costs = losses[group.seat]
                term = assessed_score(completion, said, verdict, level_ids, costs)
            if flat and term is None:
                continue
            by_span: dict[Span, float] = {
                span: values[i] for span, values in advantages.items() if isfinite(values[i])
            }
            if term is not None:
                by_span.pop("confidence", None)
            weights = token_advantages(spans, by_span)
            if term is not None and isinstance(said, Assessment):
                weights = tuple(0.0 if t == term.position else w for t, w in enumerate(weights))
            samples.append(_sample(episode, completion, weights, index, term))
    return samples


def _credit(
    groups: Sequence[Group],
    rewards: Sequence[Sequence[Reward | None]],
    baseline: Baseline,
    baselines: Mapping[str, Baseline],
    means: RunningMeans,
) -> dict[int, dict[Span, FloatArray]]:
    """The advantages of every group that is trained, by its index."""
    credit: dict[int, dict[Span, FloatArray]] = {}
    running: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        kind = baselines.get(group.seat, baseline)
        if kind == "rae":
            running.setdefault(group.seat, []).extend([index] if group.trained else [])
        else:
            credit[index] = group_advantages(rewards[index], kind)
    for seat, chosen in running.items():
        found = means.advantages(seat, [rewards[i] for i in chosen])
        credit |= dict(zip(chosen, found, strict=True))
    return credit


def _sample(
    episode: Episode,
    completion: Completion,
    advantages: tuple[float, ...],
    group: int,
    term: ExpectedScore | None,
) -> Sample:
    return Sample(
        prompt_ids=completion.prompt_ids,
        completion_ids=completion.token_ids,
        logprobs=completion.logprobs,
        advantages=advantages,
        group=group,
        seat=episode.turns[-1].seat,
        expected_score=term,
    )
