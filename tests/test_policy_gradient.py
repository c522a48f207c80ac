"""The loss and its gradient against loops over tokens in float64, written from the formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from demur.engine.tree import Packed, pack
from demur.learners.policy_gradient import PolicyGradient, Supervised
from demur.schema import ExpectedScore, Sample

Array = NDArray[np.float64]
V = 7
LEVELS = (2, 5, 3)
LENGTHS = (3, 1, 4, 2)


def make_case(temperature: float = 1.0) -> tuple[list[Sample], Packed, Array, Array]:
    """Four samples of two groups, their packing, and random logits and reference (N, L, ...).

    The behaviour log-probabilities put ratios far below, inside and far above the clip range, with
    advantages of both signs at each.
    """
    rng = np.random.default_rng(3)
    bare = [
        Sample((1, 2) if g == 0 else (4,), tuple(rng.integers(0, V, n).tolist()), (), (), g)
        for g, n in zip((0, 1, 0, 1), LENGTHS, strict=True)
    ]
    bare = [replace(s, logprobs=(0.0,) * n, advantages=(0.0,) * n)
            for s, n in zip(bare, LENGTHS, strict=True)]  # fmt: skip
    (packed,) = pack(bare, pad_id=0)
    packed = table(packed)
    logits = rng.normal(0, 1.5, (len(bare), max(LENGTHS), V))
    ratios = iter([0.4, 1.7, 1.05, 0.5, 1.6, 0.95, 0.3, 2.0, 1.1, 0.85])
    signs = iter([1.0, -1.0, 0.7, -0.6, 1.2, -0.9, 0.8, 1.1, -1.3, 0.5])
    samples = list(bare)
    for n, index in enumerate(packed.index):
        ids = bare[index].completion_ids
        now = [log_softmax(logits[n, t] / temperature)[token] for t, token in enumerate(ids)]
        samples[index] = replace(
            bare[index],
            logprobs=tuple(float(lp - math.log(next(ratios))) for lp in now),
            advantages=tuple(next(signs) for _ in ids),
        )
    samples[0] = replace(
        samples[0], expected_score=ExpectedScore(1, LEVELS, (0.49, 0.04, 1.0), 0.5)
    )
    samples[3] = replace(
        samples[3], expected_score=ExpectedScore(0, LEVELS, (0.0, 0.25, 0.9), 0.25)
    )
    reference = rng.normal(0.0, 0.6, (len(bare), max(LENGTHS)))
    for n, index in enumerate(packed.index):
        for t, token in enumerate(bare[index].completion_ids):
            reference[n, t] += log_softmax(logits[n, t] / temperature)[token]
    return samples, packed, logits, reference


def table(packed: Packed) -> Packed:
    """The packing as if every token's prediction stood in a row of its own: (N * L, V)."""
    n, length = packed.targets.shape
    return replace(packed, slots=torch.arange(n * length).view(n, length))


def flat(logits: torch.Tensor) -> torch.Tensor:
    """Logits (N, L, V) in the layout of ``table``."""
    return logits.flatten(0, 1)


def log_softmax(row: Array) -> Array:
    shifted: Array = row - row.max()
    return shifted - math.log(np.exp(shifted).sum())


def plain_loss(
    how: PolicyGradient, samples: list[Sample], index: list[int], logits: Array, reference: Array
) -> float:
    """The formulas of the module's docstring, one token after the other."""
    total, N = 0.0, len(samples)
    all_tokens = sum(len(s.completion_ids) for s in samples)
    for n, i in enumerate(index):
        sample, tokens = samples[i], 0.0
        for t, token in enumerate(sample.completion_ids):
            lp = log_softmax(logits[n, t] / how.temperature)[token]
            rho, A = math.exp(lp - sample.logprobs[t]), sample.advantages[t]
            inside = min(max(rho, 1 - how.clip), 1 + how.clip)
            tokens -= min(rho * A, inside * A)
            if how.kl:
                gap = reference[n, t] - lp
                tokens += how.kl * (math.exp(gap) - gap - 1)
        if how.normalise == "grpo":
            total += tokens / len(sample.completion_ids) / N
        elif how.normalise == "dr_grpo":
            total += tokens / (N * how.constant_length)
        else:
            total += tokens / all_tokens
        score = sample.expected_score
        if score is not None:
            chosen = logits[n, score.position][list(score.level_ids)] / how.temperature
            pi = np.exp(log_softmax(chosen))
            total += score.weight * float(pi @ np.array(score.losses)) / N
            entropy = -float(pi @ np.log(pi))
            total += how.floor_weight * max(0.0, how.entropy_floor - entropy) / N
    return total


def numeric_gradient(
    how: PolicyGradient, samples: list[Sample], index: list[int], logits: Array, reference: Array
) -> Array:
    """Central differences of ``plain_loss`` in every logit."""
    gradient, step = np.zeros_like(logits), 1e-6
    for at in np.ndindex(*logits.shape):
        ends = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[at] += sign * step
            ends.append(plain_loss(how, samples, index, moved, reference))
        gradient[at] = (ends[0] - ends[1]) / (2 * step)
    return gradient


CASES = [
    PolicyGradient(normalise="grpo"),
    PolicyGradient(normalise="dr_grpo", constant_length=9),
    PolicyGradient(normalise="bnpo"),
    PolicyGradient(normalise="bnpo", clip=0.07),
    PolicyGradient(normalise="grpo", kl=0.3),
    PolicyGradient(normalise="bnpo", kl=0.3, temperature=0.6),
    PolicyGradient(normalise="bnpo", entropy_floor=1.05, floor_weight=0.4),
    PolicyGradient(normalise="dr_grpo", kl=0.05, entropy_floor=0.9, temperature=1.7),
]


@pytest.mark.parametrize("how", CASES, ids=repr)
def test_loss_and_gradient_are_those_of_the_formulas(how: PolicyGradient) -> None:
    samples, packed, logits, reference = make_case(how.temperature)
    leaf = torch.tensor(logits, requires_grad=True)
    given = torch.tensor(reference) if how.needs_reference else None
    value, _ = how(flat(leaf), packed, samples, how.scale(samples), given)
    assert float(value.detach()) == pytest.approx(
        plain_loss(how, samples, packed.index, logits, reference), abs=1e-12
    )
    (gradient,) = torch.autograd.grad(value, leaf)
    wanted = numeric_gradient(how, samples, packed.index, logits, reference)
    np.testing.assert_allclose(gradient.numpy(), wanted, atol=2e-9)
    for n, index in enumerate(packed.index):  # nothing beyond a completion's end is touched
        assert not gradient[n, len(samples[index].completion_ids) :].any()


def test_the_clip_cuts_the_gradient_on_both_sides_and_only_there() -> None:
    samples, packed, logits, _ = make_case()
    samples = [replace(s, expected_score=None) for s in samples]
    leaf = torch.tensor(logits, requires_grad=True)
    how = PolicyGradient(clip=0.2)
    value, stats = how(flat(leaf), packed, samples, how.scale(samples))
    (gradient,) = torch.autograd.grad(value, leaf)
    outcomes = set()
    for n, index in enumerate(packed.index):
        sample = samples[index]
        for t, token in enumerate(sample.completion_ids):
            ratio = math.exp(log_softmax(logits[n, t])[token] - sample.logprobs[t])
            high = ratio > 1.2 and sample.advantages[t] > 0
            low = ratio < 0.8 and sample.advantages[t] < 0
            assert bool(gradient[n, t].any()) == (not high and not low)
            outcomes.add("high" if high else "low" if low else "free")
    assert outcomes == {"high", "low", "free"}
    assert float(stats["clip_share"]) == 6  # 0.4 1.7 0.5 1.6 0.3 2.0
    assert float(stats["tokens"]) == 10


def test_on_policy_the_gradient_is_the_plain_policy_gradient() -> None:
    """At ratio 1 the gradient in the logits is -A (one_hot - pi) times the scale."""
    samples, packed, logits, _ = make_case()
    for n, index in enumerate(packed.index):
        ids = samples[index].completion_ids
        exact = tuple(float(log_softmax(logits[n, t])[token]) for t, token in enumerate(ids))
        samples[index] = replace(samples[index], logprobs=exact, expected_score=None)
    leaf = torch.tensor(logits, requires_grad=True)
    how = PolicyGradient(normalise="bnpo")
    value, stats = how(flat(leaf), packed, samples, how.scale(samples))
    (gradient,) = torch.autograd.grad(value, leaf)
    for n, index in enumerate(packed.index):
        for t, token in enumerate(samples[index].completion_ids):
            direction = np.eye(V)[token] - np.exp(log_softmax(logits[n, t]))
            wanted = -samples[index].advantages[t] * direction / 10
            np.testing.assert_allclose(gradient[n, t].numpy(), wanted, atol=1e-12)
    assert float(stats["clip_share"]) == 0


def test_the_leash_is_zero_at_the_reference_and_pulls_towards_it() -> None:
    samples, packed, logits, _ = make_case()
    still = [replace(s, advantages=(0.0,) * len(s.advantages), expected_score=None)
             for s in samples]  # fmt: skip
    leaf = torch.tensor(logits, requires_grad=True)
    how = PolicyGradient(kl=1.0)
    own = torch.log_softmax(leaf.detach(), -1).gather(-1, packed.targets[..., None]).squeeze(-1)
    value, stats = how(flat(leaf), packed, still, how.scale(still), own)
    assert abs(float(value.detach())) < 1e-15 and abs(float(stats["kl_sum"])) < 1e-15
    value, stats = how(flat(leaf), packed, still, how.scale(still), own + 0.5)
    each = math.exp(0.5) - 0.5 - 1
    assert float(value.detach()) == pytest.approx(each)
    assert float(stats["kl_sum"]) == pytest.approx(10 * each)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert gradient[0, 0, packed.targets[0, 0]] < 0  # descent raises what the reference prefers


def test_leaving_the_levels_does_not_pay() -> None:
    """The expected score is renormalised over the levels: only their logits feel it."""
    samples, packed, logits, _ = make_case()
    still = [replace(s, advantages=(0.0,) * len(s.advantages)) for s in samples]
    leaf = torch.tensor(logits, requires_grad=True)
    how = PolicyGradient()
    value, stats = how(flat(leaf), packed, still, how.scale(still))
    (gradient,) = torch.autograd.grad(value, leaf)
    others = [v for v in range(V) if v not in LEVELS]
    assert not gradient[:, :, others].any()
    assert gradient[:, :, list(LEVELS)].any()
    assert float(stats["scored"]) == 2
    scores, entropies = 0.0, 0.0
    for n, index in enumerate(packed.index):
        score = still[index].expected_score
        if score is not None:
            pi = np.exp(log_softmax(logits[n, score.position][list(LEVELS)]))
            scores += float(pi @ np.array(score.losses))
            entropies -= float(pi @ np.log(pi))
    assert float(stats["score_sum"]) == pytest.approx(scores)
    assert float(stats["level_entropy_sum"]) == pytest.approx(entropies)


@pytest.mark.parametrize("how", [CASES[0], CASES[1], CASES[5], CASES[7], Supervised()], ids=repr)
@pytest.mark.parametrize("shared", [True, False])
def test_micro_batches_add_up_to_the_batch(how: PolicyGradient | Supervised, shared: bool) -> None:
    samples, whole, logits, reference = make_case()
    scale = how.scale(samples)
    rows = {index: n for n, index in enumerate(whole.index)}
    need = how.needs_reference

    def loss_over(packs: list[Packed]) -> tuple[float, torch.Tensor]:
        leaf, total = torch.tensor(logits, requires_grad=True), torch.zeros((), dtype=torch.float64)
        for packed in packs:
            at = [rows[i] for i in packed.index]
            width = packed.targets.shape[1]
            given = torch.tensor(reference)[at, :width] if need else None
            value, _ = how(flat(leaf[at, :width]), table(packed), samples, scale, given)
            total = total + value
        return float(total.detach()), torch.autograd.grad(total, leaf)[0]

    one, gradient = loss_over([whole])
    packs = list(pack(samples, pad_id=0, budget=7 if shared else 5, shared=shared))
    assert len(packs) == (2 if shared else 3)
    several, added = loss_over(packs)
    assert several == pytest.approx(one, abs=1e-12)
    torch.testing.assert_close(added, gradient, rtol=0, atol=1e-12)


def test_supervised_is_weighted_cross_entropy() -> None:
    samples, packed, logits, _ = make_case()
    weights = iter([1.0, 0.0, 2.0, 1.0, 0.5, 1.0, 0.0, 3.0, 1.0, 1.0])
    scored = [replace(s, advantages=tuple(next(weights) for _ in s.advantages)) for s in samples]
    samples = [replace(s, expected_score=None) for s in scored]
    leaf = torch.tensor(logits, requires_grad=True)
    how = Supervised()
    value, _ = how(flat(leaf), packed, samples, how.scale(samples))
    (gradient,) = torch.autograd.grad(value, leaf)
    wanted, slopes, total = 0.0, np.zeros_like(logits), sum(sum(s.advantages) for s in samples)
    for n, index in enumerate(packed.index):
        for t, token in enumerate(samples[index].completion_ids):
            weight = samples[index].advantages[t] / total
            lps = log_softmax(logits[n, t])
            wanted -= weight * lps[token]
            slopes[n, t] = weight * (np.exp(lps) - np.eye(V)[token])
    assert float(value.detach()) == pytest.approx(wanted, abs=1e-12)
    np.testing.assert_allclose(gradient.numpy(), slopes, atol=1e-12)
    masked = [replace(s, advantages=(0.0,) * len(s.advantages)) for s in samples]
    assert float(how(flat(leaf), packed, masked, how.scale(masked))[0].detach()) == 0.0
    term = 0.0
    for n, index in enumerate(packed.index):
        if score := scored[index].expected_score:
            stated = logits[n, score.position][list(score.level_ids)]
            term += score.weight * np.exp(log_softmax(stated)) @ np.array(score.losses)
            every = np.exp(log_softmax(logits[n, score.position]))
            term -= score.weight * np.log(every[list(score.level_ids)].sum())
    assert term > 0
    with_scores, _ = how(flat(leaf), packed, scored, how.scale(scored))
    assert float(with_scores.detach()) == pytest.approx(wanted + term / len(scored), abs=1e-12)
