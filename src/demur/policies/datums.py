"""Samples and a loss in the words of the Tinker protocol.

An engine knows a few losses. With rho = exp(lp - lp_behaviour) and advantage A, a token costs

    importance_sampling   -rho A
    ppo                   -min(rho A, clip(rho, low, high) A)
    cispo                 -stop_gradient(clip(rho, low, high)) A lp
    cross_entropy         -w lp

and a batch costs the sum over its tokens, or (SkyRL's JAX backend) the mean over its sequences of
the mean over all their positions. How ``PolicyGradient`` weighs samples against each other is put
into the advantages. What would scale a whole step alike is left out, as Adam divides by it; it
comes back in ``Fed.whole``, by which a limit on the gradient's norm has to be multiplied.

Texts that were given, not drawn, cost ``cross_entropy``. Where means are taken that loss is divided
by the sum of its own weights, which no weight outlives; there a text is sent as ``cispo`` with its
ratio clipped to 1 from both sides, which is -A lp whatever rho is.

An engine has no loss that is an expectation over confidence levels. The expected score

    d/dtheta sum_k pi(k) l_k  =  E_k~pi [ (l_k - b) d/dtheta log pi(k) ]

is estimated from levels that were drawn: in play by the level stated, against a baseline b of the
other replies of the group that would have been paid alike; for a demonstration by ``draws`` of its
level token, a token that is no level costing 1, the worst.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from demur.learners.policy_gradient import PolicyGradient
from demur.schema import ExpectedScore, Sample, Stats

Name = Literal["importance_sampling", "ppo", "cispo", "cross_entropy"]
GIVEN: Name = "cross_entropy"
FIXED = {"clip_low_threshold": 1.0, "clip_high_threshold": 1.0}
NO_LEVEL = 1.0
"""What a token that states no level costs: as much as the worst of levels, by Brier."""


@dataclass(frozen=True)
class Datum:
    """One sequence of n positions: what is read, what should follow each token, and its credit.

    ``tokens`` and ``targets`` are (n,) ids; ``credit`` (n,) are advantages or weights, 0 over the
    prompt; ``logprobs`` (n,) those under which targets were drawn.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    credit: NDArray[np.float32]
    logprobs: NDArray[np.float32]

    def sent(self, types: Any, loss: Name) -> Any:
        """As the client library's own type."""
        inputs: dict[str, Any] = {"target_tokens": self.targets}
        if loss == "cross_entropy":
            inputs["weights"] = self.credit
        else:
            inputs |= {"advantages": self.credit, "logprobs": self.logprobs}
        return types.Datum(
            model_input=types.ModelInput.from_ints(self.tokens.tolist()), loss_fn_inputs=inputs
        )


def datum(sample: Sample, credit: Sequence[float], factor: float, sums: bool) -> Datum:
    """A sample with a credit for each completion token, times ``factor``.

    Where the engine takes the mean over positions (not ``sums``), it is multiplied out again.
    """
    whole = np.array((*sample.prompt_ids, *sample.completion_ids), dtype=np.int64)
    opening, length = len(sample.prompt_ids) - 1, len(whole) - 1
    weights = np.zeros(length, dtype=np.float32)
    weights[opening:] = np.asarray(credit, dtype=np.float32) * factor * (1 if sums else length)
    logprobs = np.zeros(length, dtype=np.float32)
    logprobs[opening:] = sample.logprobs or 0.0
    return Datum(whole[:-1], whole[1:], weights, logprobs)


@dataclass(frozen=True)
class Request:
    """Datums for one loss with its settings.

    ``samples`` are those that the datums are of, in their order, where there is one for each, and
    ``shares`` how their token sums weigh against each other. ``given`` texts were not drawn: beside
    drawn ones their loss is that of a ratio of 1, alone (``supervised``) that of log-probabilities.
    """

    loss: Name
    datums: tuple[Datum, ...]
    config: dict[str, float]
    samples: tuple[Sample, ...] = ()
    shares: tuple[float, ...] = ()
    given: bool = False
    supervised: bool = False


def texts(
    rows: Sequence[tuple[Sample, Datum, float]], sums: bool, supervised: bool = False
) -> Request:
    """A request of given texts, each with its datum and share."""
    samples, datums, shares = zip(*rows, strict=True)
    loss: Name = GIVEN if sums else "cispo"
    return Request(loss, datums, {} if sums else FIXED, samples, shares, True, supervised)


@dataclass(frozen=True)
class Fed:
    """What some samples of a step send, and the scale that was left out.

    Over all that a step sends, the gradient is the engine's divided by the sum of ``whole``, times
    (where the engine takes means) the sum of ``count``, the number of datums.
    """

    requests: tuple[Request, ...]
    whole: float
    count: int


def feed_gradient(samples: Sequence[Sample], loss: PolicyGradient, name: Name, sums: bool) -> Fed:
    """What policy gradient sends for some samples of a step.

    Samples without behaviour log-probabilities are given texts.
    """
    if not samples:
        return Fed((), 0.0, 0)
    mean = sum(len(s.completion_ids) for s in samples) / len(samples)
    baselines = _baselines(samples)
    drawn: list[tuple[Sample, Datum, float]] = []
    given: list[tuple[Sample, Datum, float]] = []
    for sample, baseline in zip(samples, baselines, strict=True):
        length = len(sample.completion_ids)
        factor = 1.0 / length if loss.normalise == "grpo" else 1.0
        credit = list(sample.advantages)
        if sample.expected_score is not None:
            # Scores are averaged over samples, tokens as normalise says: this is their exchange.
            tokens = {"grpo": length, "dr_grpo": loss.constant_length, "bnpo": mean}
            term = sample.expected_score
            cost = _cost(term, sample.completion_ids[term.position])
            credit[term.position] += term.weight * (baseline - cost) * tokens[loss.normalise]
        kept = drawn if sample.logprobs else given
        kept.append((sample, datum(sample, credit, factor, sums), factor))
    clip = {"clip_low_threshold": 1.0 - loss.clip, "clip_high_threshold": 1.0 + loss.clip}
    requests = []
    if drawn:
        config = clip if name in ("ppo", "cispo") else {}
        played, datums, shares = zip(*drawn, strict=True)
        requests.append(Request(name, datums, config, played, shares))
    if given:
        requests.append(texts(given, sums))
    count = len(samples)
    whole = {"grpo": count, "dr_grpo": count * loss.constant_length, "bnpo": mean * count}
    return Fed(tuple(requests), float(whole[loss.normalise]), count)


def _cost(term: ExpectedScore, token: int) -> float:
    return term.losses[term.level_ids.index(token)] if token in term.level_ids else NO_LEVEL


def _baselines(samples: Sequence[Sample]) -> list[float]:
    """What the others of a sample's group that would be paid alike were paid, on average.

    Alone, it is compared with all levels, each as probable as any other.
    """
    alike: dict[tuple[int, tuple[float, ...]], list[float]] = defaultdict(list)
    for sample in samples:
        term = sample.expected_score
        if term is not None:
            cost = _cost(term, sample.completion_ids[term.position])
            alike[sample.group, term.losses].append(cost)
    found = []
    for sample in samples:
        term = sample.expected_score
        if term is None:
            found.append(0.0)
            continue
        costs = alike[sample.group, term.losses]
        cost = _cost(term, sample.completion_ids[term.position])
        others = len(costs) - 1
        found.append((sum(costs) - cost) / others if others else float(np.mean(term.losses)))
    return found


@dataclass(frozen=True)
class Draw:
    """Level tokens that the policy stated at a demonstration's confidence."""

    sample: Sample
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


def feed_supervised(samples: Sequence[Sample], draws: Sequence[Draw], sums: bool) -> Fed:
    """What cross-entropy on demonstrations sends, and their expected scores as drawn levels.

    Tokens are averaged over their weights, scores over samples; the levels' credits are at the
    scale of the tokens.
    """
    if not samples:
        return Fed((), 0.0, 0)
    weight = sum(sum(s.advantages) for s in samples)
    rows = [(s, datum(s, s.advantages, 1.0, sums), 1.0) for s in samples]
    requests = [texts(rows, sums, supervised=True)]
    exchange = weight / len(samples)
    levels = tuple(row for draw in draws for row in _levels(draw, exchange, sums))
    if levels:
        requests.append(Request("importance_sampling", levels, {}))
    return Fed(tuple(requests), weight, len(samples) + len(levels))


def _levels(draw: Draw, exchange: float, sums: bool) -> list[Datum]:
    term = draw.sample.expected_score
    assert term is not None
    costs = [_cost(term, token) for token in draw.tokens]
    count = len(costs)
    opening = draw.sample.completion_ids[: term.position]
    found = []
    for token, logprob, cost in zip(draw.tokens, draw.logprobs, costs, strict=True):
        baseline = (sum(costs) - cost) / (count - 1) if count > 1 else float(np.mean(term.losses))
        credit = term.weight * (baseline - cost) / count * exchange
        stated = replace(
            draw.sample,
            completion_ids=(*opening, token),
            logprobs=(*(0.0,) * len(opening), logprob),
        )
        found.append(datum(stated, (*(0.0,) * len(opening), credit), 1.0, sums))
    return found


def figures(answered: Sequence[tuple[Request, Any]], whole: float) -> Stats:
    """Loss, entropy and the share of clipped tokens, from the engine's log-probabilities.

    ``whole`` is that of all that was fed. The loss is ``LocalPolicy``'s without expected scores,
    and the entropy is estimated as there, by the mean of -lp.
    """
    cost = surprise = clipped = 0.0
    tokens = 0
    for request, answer in answered:
        if not request.samples:
            continue
        lengths = [len(sample.completion_ids) for sample in request.samples]
        outputs = zip(answer.loss_fn_outputs, lengths, strict=True)
        new = _joined([output["logprobs"].data[-length:] for output, length in outputs])
        credit = _joined([sample.advantages for sample in request.samples])
        share = np.repeat(request.shares, lengths)
        tokens += len(new)
        surprise -= float(new.sum())
        if request.given:
            cost -= float((share * credit * (new if request.supervised else 1.0)).sum())
            continue
        sent = zip(request.datums, lengths, strict=True)
        old = _joined([each.logprobs[-length:] for each, length in sent])
        ratio = np.exp(new - old)
        low = request.config.get("clip_low_threshold", -np.inf)
        high = request.config.get("clip_high_threshold", np.inf)
        bound = np.clip(ratio, low, high)
        clipped += float((ratio != bound).sum())
        gain = {
            "ppo": np.minimum(ratio * credit, bound * credit),
            "cispo": bound * credit * new,
            "importance_sampling": ratio * credit,
        }
        cost -= float((share * gain[request.loss]).sum())
    if not tokens:
        return {}
    return {"loss": cost / whole, "entropy": surprise / tokens, "clip_share": clipped / tokens}


def _joined(rows: Sequence[Any]) -> NDArray[np.float64]:
    """Rows of different lengths one after the other."""
    return np.concatenate(rows).astype(np.float64)
