"""The policy-gradient loss: clipped importance ratios, a KL leash, and the expected score.

Per completion token t of sample i, with ratio rho = exp(lp - lp_behaviour) and advantage A:

    pg     = -min(rho * A, clip(rho, 1 - c, 1 + c) * A)                      (PPO, arXiv 1707.06347)
    kl     = exp(lp_ref - lp) - (lp_ref - lp) - 1                            (k3, low variance)

normalised in one of three ways over the N samples of the whole batch, however it is cut up:

    grpo     mean over samples of the mean over their tokens                 (arXiv 2402.03300)
    dr_grpo  sum over tokens / (N * constant length)                         (arXiv 2503.20783)
    bnpo     sum over tokens / number of tokens in the batch                 (RLCR's choice)

To it a sample may add an expected score: with pi the policy's probabilities over the confidence
levels (renormalised over the levels, so that leaving them never pays) and losses l_k,

    weight * sum_k pi(k) * l_k,   averaged over the N samples,

which is the exact gradient that sampling a level and paying its score would only estimate. Below an
entropy floor h the term ``floor_weight * max(0, h - H(pi))`` keeps levels from saturating.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from demur.engine.tree import Packed, token_logprobs
from demur.schema import Sample

Normalise = Literal["grpo", "dr_grpo", "bnpo"]


@dataclass(frozen=True)
class PolicyGradient:
    """Settings of the loss; see the module's formulas."""

    clip: float = 0.2
    kl: float = 0.0
    normalise: Normalise = "bnpo"
    constant_length: int = 16
    entropy_floor: float = 0.0
    floor_weight: float = 0.1
    temperature: float = 1.0

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of a frozen reference must be given."""
        return self.kl > 0

    @property
    def whole_groups(self) -> bool:
        """Advantages are given, so a group may be cut."""
        return False

    def scale(self, samples: Sequence[Sample]) -> Tensor:
        """The weight of each sample's token sum, (N,), so that micro-batches simply add up."""
        lengths = torch.tensor([len(s.completion_ids) for s in samples], dtype=torch.float64)
        if self.normalise == "grpo":
            return 1.0 / (lengths.clamp(min=1) * len(samples))
        if self.normalise == "dr_grpo":
            return torch.full_like(lengths, 1.0 / (len(samples) * self.constant_length))
        return torch.full_like(lengths, 1.0 / max(float(lengths.sum()), 1.0))

    def __call__(
        self,
        logits: Tensor,
        packed: Packed,
        samples: Sequence[Sample],
        scale: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one micro-batch and sums to be logged.

        ``logits`` (U, V) are those of ``completion_logits``; ``samples`` is the whole batch,
        ``scale`` (len(samples),) its weights; ``reference`` (N, L) log-probabilities.
        """
        chosen = [samples[i] for i in packed.index]
        dtype, device = logits.dtype, logits.device
        logprobs = token_logprobs(logits, packed, self.temperature)  # (N, L)
        valid = packed.valid.to(dtype)
        behaviour = _padded([s.logprobs for s in chosen], packed, dtype)
        given = torch.tensor([not s.logprobs for s in chosen], device=device)
        behaviour = torch.where(given[:, None], logprobs.detach(), behaviour)
        advantage = _padded([s.advantages for s in chosen], packed, dtype)
        ratio = torch.exp(torch.where(packed.valid, logprobs - behaviour, 0.0))
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        per_token = -torch.minimum(ratio * advantage, clipped * advantage)
        stats = {
            "clip_share": ((ratio != clipped).to(dtype) * valid).sum().detach(),
            "tokens": valid.sum(),
            "entropy_sum": -(logprobs.detach() * valid).sum(),
        }
        if reference is not None:
            gap = torch.where(packed.valid, reference - logprobs, 0.0)
            kl = torch.exp(gap) - gap - 1
            per_token = per_token + self.kl * kl
            stats["kl_sum"] = (kl.detach() * valid).sum()
        weights = scale[packed.index].to(device=device, dtype=dtype)
        loss = ((per_token * valid).sum(1) * weights).sum()
        term, extra = expected_scores(
            logits,
            packed,
            chosen,
            len(samples),
            temperature=self.temperature,
            entropy_floor=self.entropy_floor,
            floor_weight=self.floor_weight,
        )
        return loss + term, stats | extra


@dataclass(frozen=True)
class Supervised:
    """Cross-entropy on given completions; each token weighs its ``advantage`` (1 for plain text).

    Averaged over the weights, so that 0 masks a token. Expected scores are added where samples have
    them: the level that they favour is the mean of the targets, where cross-entropy favours the
    most frequent one. As they say nothing of tokens that are no level, -log of the probability of
    any level is added to each, at the same weight.
    """

    needs_reference: bool = False
    whole_groups: bool = False
    temperature: float = 1.0

    def scale(self, samples: Sequence[Sample]) -> Tensor:
        """1 / (sum of all token weights), for every sample."""
        total = sum(sum(s.advantages) for s in samples)
        return torch.full((len(samples),), 1.0 / max(total, 1e-12), dtype=torch.float64)

    def __call__(
        self,
        logits: Tensor,
        packed: Packed,
        samples: Sequence[Sample],
        scale: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one micro-batch and sums to be logged; arguments as for ``PolicyGradient``."""
        chosen = [samples[i] for i in packed.index]
        picked = token_logprobs(logits, packed)
        weights = _padded([s.advantages for s in chosen], packed, logits.dtype)
        share = scale[packed.index].to(device=logits.device, dtype=logits.dtype)
        loss = -((picked * weights).sum(1) * share).sum()
        term, extra = expected_scores(logits, packed, chosen, len(samples), leaving=1.0)
        return loss + term, {"tokens": packed.valid.sum()} | extra


def expected_scores(
    logits: Tensor,
    packed: Packed,
    chosen: Sequence[Sample],
    total: int,
    *,
    temperature: float = 1.0,
    entropy_floor: float = 0.0,
    floor_weight: float = 0.0,
    leaving: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The expected scores of one micro-batch (the module's last formula), and sums to be logged.

    ``logits`` (U, V) are those of ``completion_logits`` for the packed samples ``chosen``;
    ``total`` is the number of samples of the whole batch; ``leaving`` weighs -log of the
    probability of any level at all.
    """
    scored = [(n, s.expected_score) for n, s in enumerate(chosen) if s.expected_score]
    if not scored:
        return logits.new_zeros(()), {}
    at = torch.tensor([n for n, _ in scored], device=logits.device)
    position = torch.tensor([e.position for _, e in scored if e], device=logits.device)
    levels = torch.tensor([e.level_ids for _, e in scored if e], device=logits.device)
    losses = logits.new_tensor([e.losses for _, e in scored if e])  # (M, K)
    weight = logits.new_tensor([e.weight for _, e in scored if e])
    stated = logits[packed.slots[at, position]] / temperature  # (M, V)
    log_pi = torch.log_softmax(stated.gather(1, levels), dim=-1)  # (M, K)
    pi = log_pi.exp()
    expected = (pi * losses).sum(1)
    term = (weight * expected).sum() / total
    entropy = -(pi * log_pi).sum(1)
    if leaving > 0:
        mass = stated.gather(1, levels).logsumexp(1) - stated.logsumexp(1)
        term = term - leaving * (weight * mass).sum() / total
    if entropy_floor > 0:
        short = torch.relu(entropy_floor - entropy)
        term = term + floor_weight * short.sum() / total
    return term, {
        "score_sum": expected.detach().sum(),
        "level_entropy_sum": entropy.detach().sum(),
        "scored": logits.new_tensor(float(len(scored))),
    }


def _padded(rows: Sequence[Sequence[float]], packed: Packed, dtype: torch.dtype) -> Tensor:
    out = torch.zeros(packed.targets.shape, dtype=dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return out.to(packed.targets.device)
