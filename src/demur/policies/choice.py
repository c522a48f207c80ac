"""What a model would choose: its probabilities of some words, renormalised over them.

The belief of arXiv 2507.07484: the first token of each option, after the tag that opens an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

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
            logits = policy.model(tokens.to(device), attention_mask=mask.to(device)).logits
        last = mask.sum(1).to(device) - 1
        chosen = logits[torch.arange(len(rows), device=device), last][:, ids]
        found[rows] = chosen.double().softmax(-1).cpu().numpy()
    return found
