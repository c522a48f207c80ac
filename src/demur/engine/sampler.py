"""Sampling: read each prompt once, branch its cache to the group, let finished rows leave.

Sampling is by temperature alone (no top-k, no top-p), and the log-probability of every token under
that same distribution is kept, so importance ratios against it are unbiased. Temperature 0 is
greedy decoding; its log-probabilities are those of temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demur.errors import TrainingError
from demur.schema import Sampling

TOKEN_BUDGET = 48_000  # tokens of KV cache (prompt and completion, all rows) held at once


@dataclass
class Drawn:
    """Token ids, their log-probabilities and whether the row ended by itself."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False


def _batches(lengths: Sequence[int], n: int, extra: int, budget: int) -> list[list[int]]:
    """Indices of prompts of similar length whose branched rows fit the budget."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches: list[list[int]] = []
    for index in order:
        cost = (lengths[index] + extra) * n
        if batches and (len(batches[-1]) + 1) * cost <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    *,
    stop_ids: frozenset[int],
    pad_id: int,
    generator: torch.Generator,
    budget: int = TOKEN_BUDGET,
) -> list[list[Drawn]]:
    """Draw ``n`` completions for each prompt (token ids), in the order of the prompts.

    Raises ``TrainingError`` where the model gives NaN instead of logits.
    """
    distinct: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        distinct.setdefault(tuple(prompt), []).append(index)
    results: list[list[Drawn]] = [[] for _ in prompts]
    # prompts that appear equally often are branched together
    by_count: dict[int, list[tuple[int, ...]]] = {}
    for prompt_ids, owners in distinct.items():
        by_count.setdefault(len(owners), []).append(prompt_ids)
    for count, group in by_count.items():
        branch = n * count
        for batch in _batches([len(p) for p in group], branch, sampling.max_tokens, budget):
            chosen = [group[i] for i in batch]
            rows = _decode(model, chosen, branch, sampling, stop_ids, pad_id, generator)
            for i, prompt_ids in enumerate(chosen):
                for j, owner in enumerate(distinct[prompt_ids]):
                    start = i * branch + j * n
                    results[owner] = rows[start : start + n]
    return results


def _decode(
    model: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    branch: int,
    sampling: Sampling,
    stop_ids: frozenset[int],
    pad_id: int,
    generator: torch.Generator,
) -> list[Drawn]:
    device = model.device
    width = max(len(p) for p in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    cache = DynamicCache(config=model.config)
    logits = _forward(model, ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
    rows = [Drawn() for _ in range(len(prompts) * branch)]
    alive = torch.arange(len(rows), device=device)
    if branch > 1:
        cache.batch_repeat_interleave(branch)
        logits = logits.repeat_interleave(branch, dim=0)
        mask = mask.repeat_interleave(branch, dim=0)
    stops = torch.tensor(sorted(stop_ids), device=device)
    for step in range(sampling.max_tokens):
        tokens, logprobs = _pick(logits, sampling.temperature, generator)
        ended = torch.isin(tokens, stops)
        for row, token, logprob, end in zip(
            alive.tolist(), tokens.tolist(), logprobs.tolist(), ended.tolist(), strict=True
        ):
            rows[row].ids.append(token)
            rows[row].logprobs.append(logprob)
            rows[row].stopped = end
        if step + 1 == sampling.max_tokens or bool(ended.all()):
            break
        if bool(ended.any()):
            keep = (~ended).nonzero().squeeze(1)
            alive, tokens, mask = alive[keep], tokens[keep], mask[keep]
            cache.batch_select_indices(keep)
        positions = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        logits = _forward(model, tokens[:, None], mask, positions, cache)
    return rows


def _forward(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache
) -> Tensor:
    """Logits of the last position, (B, V), in float32; the cache grows in place."""
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = out.logits[:, -1].float()
    return logits


def _pick(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability under the sampling distribution, both (B,).

    Raises ``TrainingError`` where the logits of a row are no distribution (NaN or infinite).
    """
    logprobs = torch.log_softmax(logits / temperature if temperature else logits, dim=-1)
    if bool(logprobs[:, 0].isnan().any()):  # one bad logit makes NaN of its whole row
        raise TrainingError(
            "the model gave NaN or infinite logits while it sampled, so its weights are broken; "
            "copy the model folder again or, in training, lower the learning rate and start from "
            "the last checkpoint kept, with --model and a new --out"
        )
    if temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        tokens = torch.multinomial(logprobs.exp(), 1, generator=generator).squeeze(1)
    return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1)
