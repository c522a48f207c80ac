"""What a model would choose, and what it holds: odds of some words, and its hidden states.

Belief as arXiv 2507.07484 reads it: the probabilities of the first token of each option, after the
tag that opens an answer, renormalised over the options. The hidden states of the last token of a
prompt, before anything is said, are what linear probes read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from demur.errors import ConfigError
from demur.policies.local import LocalPolicy
from demur.schema import Dialogue, FloatArray

ROWS = 128


def choice_odds(
    policy: LocalPolicy,
    dialogues: Sequence[Dialogue],
    options: Sequence[str],
    opening: str = "<answer>",
) -> FloatArray:
    """P(each option) of each dialogue, shape (dialogues, options); rows add up to 1.

    Raises ``ConfigError`` where two options begin with the same token.
    """
    spell = policy.tokenizer
    ids = [spell(option, add_special_tokens=False)["input_ids"][0] for option in options]
    if len(set(ids)) < len(ids):
        raise ConfigError(f"the options {', '.join(options)} begin alike for {policy.name}")
    opened = spell(opening, add_special_tokens=False)["input_ids"]
    prompts = [[*policy.prompt_ids(d), *opened] for d in dialogues]
    found = np.empty((len(prompts), len(ids)))
    for rows, at, out in _batches(policy, prompts):
        chosen = out.logits[torch.arange(len(rows), device=at.device), at][:, ids]
        found[rows] = chosen.double().softmax(-1).cpu().numpy()
    return found


def hidden_states(policy: LocalPolicy, dialogues: Sequence[Dialogue]) -> FloatArray:
    """The states of each prompt's last token after every layer, (dialogues, layers, width)."""
    prompts = [list(policy.prompt_ids(d)) for d in dialogues]
    found: list[FloatArray] = [np.empty(0)] * len(prompts)
    for rows, at, out in _batches(policy, prompts, output_hidden_states=True):
        take = torch.arange(len(rows), device=at.device)
        layers = torch.stack([layer[take, at] for layer in out.hidden_states[1:]], dim=1)
        for i, states in zip(rows, layers.double().cpu().numpy(), strict=True):
            found[i] = states
    return np.stack(found)


def _batches(
    policy: LocalPolicy, prompts: Sequence[Sequence[int]], **wanted: bool
) -> Iterator[tuple[list[int], torch.Tensor, Any]]:
    """Prompts of like length together: which they are, where each ends, the model's outputs."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    device = policy.model.device
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        width = max(len(prompts[i]) for i in rows)
        tokens = torch.full((len(rows), width), policy.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for r, i in enumerate(rows):
            tokens[r, : len(prompts[i])] = torch.tensor(prompts[i])
            mask[r, : len(prompts[i])] = 1
        with torch.no_grad():
            out = policy.model(tokens.to(device), attention_mask=mask.to(device), **wanted)
        yield rows, mask.sum(1).to(device) - 1, out
