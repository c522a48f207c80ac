"""The forward pass of learning: a group is one packed tree.

Samples that share a prompt share one row: the prompt once, then every completion, each attending to
the prompt and to itself only (a 4-D mask) at the positions it would have alone. Padded rows, one
per sample, give the same numbers and serve models that cannot take such a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.schema import Sample

TOKEN_BUDGET = 12_000  # tokens in one forward pass; more are accumulated


@dataclass(frozen=True)
class Packed:
    """One forward pass: rows of tokens, and where each sample's predictions are read.

    ``ids`` and ``positions`` are (B, T); ``mask`` is (B, 1, T, T), True where attention is allowed.
    ``rows`` and ``columns`` are (N, L): the place whose logits predict each completion token;
    ``targets`` (N, L) are those tokens and ``valid`` (N, L) says which are real. ``index`` gives
    each of the N samples its place in the list that was packed.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    valid: Tensor
    index: list[int]


def pack(
    samples: Sequence[Sample],
    *,
    pad_id: int,
    shared: bool = True,
    budget: int = TOKEN_BUDGET,
    device: torch.device | str = "cpu",
) -> Iterator[Packed]:
    """Pack samples into forward passes of at most ``budget`` tokens (one row may exceed it).

    With ``shared`` False every sample is a row of its own (padded rows).
    """
    trees: dict[object, list[int]] = {}
    for i, sample in enumerate(samples):
        key = (sample.group, sample.prompt_ids) if shared else i
        trees.setdefault(key, []).append(i)
    sized = []
    for members in trees.values():
        prompt = len(samples[members[0]].prompt_ids)
        width = prompt + sum(max(len(samples[i].completion_ids) - 1, 0) for i in members)
        sized.append((width, members))
    sized.sort(key=lambda pair: pair[0])
    batch: list[tuple[int, list[int]]] = []
    for width, members in sized:
        if batch and (len(batch) + 1) * width > budget:
            yield _pack_rows(samples, batch, pad_id, device)
            batch = []
        batch.append((width, members))
    if batch:
        yield _pack_rows(samples, batch, pad_id, device)


def _pack_rows(
    samples: Sequence[Sample],
    batch: list[tuple[int, list[int]]],
    pad_id: int,
    device: torch.device | str,
) -> Packed:
    width = max(w for w, _ in batch)
    index = [i for _, members in batch for i in members]
    longest = max(len(samples[i].completion_ids) for i in index)
    ids = torch.full((len(batch), width), pad_id, dtype=torch.long)
    positions = torch.zeros((len(batch), width), dtype=torch.long)
    # branch[b, t]: 0 for the prompt, 1, 2, ... for completions, -1 for padding
    branch = torch.full((len(batch), width), -1, dtype=torch.long)
    rows = torch.zeros((len(index), longest), dtype=torch.long)
    columns = torch.zeros_like(rows)
    targets = torch.zeros_like(rows)
    valid = torch.zeros((len(index), longest), dtype=torch.bool)
    at = 0
    for b, (_, members) in enumerate(batch):
        prompt = samples[members[0]].prompt_ids
        start = len(prompt)
        ids[b, :start] = torch.tensor(prompt)
        positions[b, :start] = torch.arange(start)
        branch[b, :start] = 0
        end = start
        for nth, i in enumerate(members, start=1):
            completion = torch.tensor(samples[i].completion_ids)
            length, fed = len(completion), max(len(completion) - 1, 0)
            ids[b, end : end + fed] = completion[:-1]
            positions[b, end : end + fed] = torch.arange(start, start + fed)
            branch[b, end : end + fed] = nth
            rows[at, :length] = b
            columns[at, :1] = start - 1
            columns[at, 1:length] = torch.arange(end, end + fed)
            targets[at, :length] = completion
            valid[at, :length] = True
            end += fed
            at += 1
    query, key = branch[:, :, None], branch[:, None, :]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    mask = ((key == 0) | (key == query)) & causal & (key >= 0)
    mask |= torch.eye(width, dtype=torch.bool)  # padding attends to itself: no empty softmax
    return Packed(
        ids.to(device),
        positions.to(device),
        mask[:, None].to(device),
        rows.to(device),
        columns.to(device),
        targets.to(device),
        valid.to(device),
        index,
    )


def completion_logits(model: PreTrainedModel, packed: Packed) -> Tensor:
    """Logits that predict each completion token, (N, L, V), in float32."""
    out = model(
        input_ids=packed.ids,
        attention_mask=_masks(model, packed),
        position_ids=packed.positions,
        use_cache=False,
    )
    logits: Tensor = out.logits[packed.rows, packed.columns]
    return logits.float()


def _masks(model: PreTrainedModel, packed: Packed) -> Tensor | dict[str, Tensor]:
    """The additive mask (B, 1, T, T); one a kind of layer where some attend to a window only.

    A window counts positions, not columns: branches lie side by side but begin at the same place.
    """
    dtype = next(model.parameters()).dtype

    def bias(mask: Tensor) -> Tensor:
        zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return zeros.masked_fill_(~mask, torch.finfo(dtype).min)

    config = model.config.get_text_config()
    window: int | None = getattr(config, "sliding_window", None)
    if window is None or int(packed.positions.max()) < window:
        return bias(packed.mask)
    far = packed.positions[:, :, None] - packed.positions[:, None, :] >= window
    near = bias(packed.mask & ~far[:, None])
    if not getattr(config, "layer_types", None):  # every layer slides
        return near
    return {"full_attention": bias(packed.mask), "sliding_attention": near}
