"""The forward pass of learning: samples that begin alike are one tree, computed once.

A short tree shares every token that two of its samples have in common and attends through a mask; a
long one shares whole prompts and whole turns, and its attention is merged from parts. Padded rows,
one a sample, give the same numbers and serve models that cannot do either (see ``probe.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.engine.attention import Parts, dense_parts, forward, merged_parts
from demur.engine.forest import Forest, families, join, plant
from demur.engine.options import UPDATE_TOKENS
from demur.errors import EngineError
from demur.schema import Sample

PIECE = 64  # rows of logits handled at a time on a CPU
SHORT = 320  # tokens of a tree up to which a mask is faster than merging (docs/results/engine.md)


@dataclass(frozen=True)
class Packed:
    """One forward pass: tokens, and where each sample's predictions are read.

    ``ids`` and ``positions`` are (B, T): one row of trees, for which ``tree`` says who attends to
    whom, or padded rows, where it is ``None``. The model is asked for the logits at columns
    ``kept`` (K,), which come as (B * K, V); ``slots`` (N, L) says which of them predict each
    completion token. ``targets`` (N, L) are those tokens and ``valid`` (N, L) says which are real.
    ``index`` gives each of the N samples its place in the list that was packed. Of padded rows,
    ``real`` (B, T) says what is no padding.
    """

    ids: Tensor
    positions: Tensor
    tree: Parts | None
    kept: Tensor
    slots: Tensor
    targets: Tensor
    valid: Tensor
    index: list[int]
    real: Tensor | None = None


def pack(
    samples: Sequence[Sample],
    *,
    pad_id: int,
    shared: bool = True,
    budget: int = UPDATE_TOKENS,
    short: int = SHORT,
    whole: bool = False,
    device: torch.device | str = "cpu",
) -> Iterator[Packed]:
    """Pack samples into forward passes of at most ``budget`` tokens.

    With ``shared`` False every sample is a row of its own (padded rows). A tree beyond the budget
    is split, its prompt repeated; with ``whole`` a group stays in one pass. Raises ``EngineError``
    where the budget cannot hold a single sample, or a group that has to stay whole.
    """
    there = torch.device(device)
    if not shared:
        yield from _pack_rows(samples, pad_id, budget, whole, there)
        return
    waiting: dict[bool, list[tuple[Forest, list[int]]]] = {True: [], False: []}
    fed = [(*s.prompt_ids, *s.completion_ids[:-1]) for s in samples]
    trees_of = families(fed, [len(s.prompt_ids) for s in samples])
    for members in _united(samples, trees_of) if whole else trees_of:
        for is_short, tree, chosen in _fit(samples, fed, members, budget, short, whole):
            waiting[is_short].append((tree, chosen))
    for is_short, trees in waiting.items():
        trees.sort(key=lambda pair: len(pair[0]))
        batch: list[tuple[Forest, list[int]]] = []
        used = 0
        for tree, chosen in trees:
            if batch and used + len(tree) > budget:
                yield _pack_trees(samples, batch, is_short, there)
                batch, used = [], 0
            batch.append((tree, chosen))
            used += len(tree)
        if batch:
            yield _pack_trees(samples, batch, is_short, there)


def _united(samples: Sequence[Sample], trees: list[list[int]]) -> list[list[int]]:
    """Trees that hold samples of one group, as one unit."""
    unit_of: dict[int, list[int]] = {}
    for members in trees:
        joined = list(members)
        for unit in {id(u): u for i in members if (u := unit_of.get(samples[i].group))}.values():
            joined += unit
        for i in joined:
            unit_of[samples[i].group] = joined
    return list({id(unit): unit for unit in unit_of.values()}.values())


def _fit(
    samples: Sequence[Sample],
    fed: Sequence[tuple[int, ...]],
    members: list[int],
    budget: int,
    short: int,
    whole: bool,
) -> Iterator[tuple[bool, Forest, list[int]]]:
    """The tree of some samples, split until each piece fits the budget."""
    sequences, prompts = [fed[i] for i in members], [len(samples[i].prompt_ids) for i in members]
    tree = plant(sequences, prompts)
    is_short = len(tree) <= short
    if not is_short:
        tree = plant(sequences, prompts, fine=False)
    if len(tree) <= budget:
        yield is_short, tree, members
        return
    cut = len(members) // 2
    if whole:  # pairs are compared, so a group is only ever cut between groups
        members = sorted(members, key=lambda i: samples[i].group)
        groups = [samples[i].group for i in members]
        cuts = [c for c in range(1, len(groups)) if groups[c - 1] != groups[c]]
        cut = min(cuts, key=lambda c: abs(c - cut), default=0)
    if not cut:
        raise EngineError(_too_small(len(tree), budget, whole and len(members) > 1))
    for part in (members[:cut], members[cut:]):
        yield from _fit(samples, fed, part, budget, short, whole)


def _too_small(tokens: int, budget: int, group: bool) -> str:
    what = "a group that has to stay whole" if group else "a single sample"
    return (
        f"{what} needs {tokens} tokens in one forward pass and the token budget is {budget}; "
        f"raise it with --set engine.update_tokens={tokens} or shorten the replies"
    )


def _pack_trees(
    samples: Sequence[Sample],
    batch: list[tuple[Forest, list[int]]],
    is_short: bool,
    device: torch.device,
) -> Packed:
    forest = join([tree for tree, _ in batch])
    index = [i for _, members in batch for i in members]
    read = []
    for i, columns in zip(index, forest.columns, strict=True):
        sample = samples[i]
        start = len(sample.prompt_ids) - 1
        read.append(columns[start : start + len(sample.completion_ids)])
    wanted = np.concatenate(read) if read else np.zeros(0, dtype=np.int64)
    kept, flat = np.unique(wanted, return_inverse=True)
    positions = torch.from_numpy(forest.positions).to(device)
    cut = dense_parts if is_short else merged_parts
    lengths = [len(r) for r in read]
    slots, targets, valid = _table(samples, index, np.split(flat, np.cumsum(lengths)[:-1]), device)
    return Packed(
        torch.from_numpy(forest.tokens).to(device)[None],
        positions[None],
        Parts(cut(forest, device), positions),
        torch.from_numpy(kept).to(device),
        slots,
        targets,
        valid,
        index,
    )


def _pack_rows(
    samples: Sequence[Sample], pad_id: int, budget: int, whole: bool, device: torch.device
) -> Iterator[Packed]:
    """Rows of similar length, padded on the right; a causal model does not see that padding."""
    units: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        units.setdefault(sample.group if whole else i, []).append(i)

    def size(i: int) -> int:
        return len(samples[i].prompt_ids) + max(len(samples[i].completion_ids) - 1, 0)

    batch: list[int] = []
    width = 0
    for unit in sorted(units.values(), key=lambda u: max(map(size, u))):
        longest = max(map(size, unit))
        if len(unit) * longest > budget:
            raise EngineError(_too_small(len(unit) * longest, budget, len(unit) > 1))
        if batch and (len(batch) + len(unit)) * longest > budget:
            yield _rows(samples, batch, width, pad_id, device)
            batch = []
        batch, width = [*batch, *unit], longest
    if batch:
        yield _rows(samples, batch, width, pad_id, device)


def _rows(
    samples: Sequence[Sample], index: list[int], width: int, pad_id: int, device: torch.device
) -> Packed:
    ids = np.full((len(index), width), pad_id, dtype=np.int64)
    real = np.zeros_like(ids)
    first = min(len(samples[i].prompt_ids) for i in index) - 1
    slots = []
    for row, i in enumerate(index):
        sample = samples[i]
        fed = (*sample.prompt_ids, *sample.completion_ids[:-1])
        ids[row, : len(fed)] = fed
        real[row, : len(fed)] = 1
        start = row * (width - first) + len(sample.prompt_ids) - 1 - first
        slots.append(np.arange(start, start + len(sample.completion_ids)))
    positions = torch.arange(width).expand(len(index), -1)
    return Packed(
        torch.from_numpy(ids).to(device),
        positions.to(device),
        None,
        torch.arange(first, width, device=device),
        *_table(samples, index, slots, device),
        index,
        torch.from_numpy(real).to(device),
    )


def _table(
    samples: Sequence[Sample],
    index: Sequence[int],
    slots: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.int64]]],
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """``slots``, ``targets`` and ``valid`` of a pass, each (N, L)."""
    longest = max(len(s) for s in slots)
    table = np.zeros((3, len(index), longest), dtype=np.int64)
    for n, (i, at) in enumerate(zip(index, slots, strict=True)):
        table[0, n, : len(at)] = at
        table[1, n, : len(at)] = samples[i].completion_ids
        table[2, n, : len(at)] = 1
    made = torch.from_numpy(table).to(device)
    return made[0], made[1], made[2].bool()


def completion_logits(model: PreTrainedModel, packed: Packed) -> Tensor:
    """Logits at the kept columns, (U, V), in float32; ``packed.slots`` indexes them."""
    if packed.tree is not None:
        return forward(model, packed.ids[0], packed.positions[0], packed.tree, packed.kept)
    out = model(
        input_ids=packed.ids,
        attention_mask=packed.real,
        position_ids=packed.positions,
        use_cache=False,
        logits_to_keep=packed.kept,
    )
    logits: Tensor = out.logits.flatten(0, 1)
    return logits if logits.dtype == torch.float64 else logits.float()


def token_logprobs(logits: Tensor, packed: Packed, temperature: float = 1.0) -> Tensor:
    """Log-probability of each completion token, (N, L), from ``completion_logits``."""
    rows, targets = packed.slots.flatten(), packed.targets.flatten()
    found: Tensor = _Chosen.apply(logits, rows, targets, temperature)  # type: ignore[no-untyped-call]
    return found.view(packed.slots.shape)


class _Chosen(torch.autograd.Function):
    """Log-probabilities of chosen tokens, without a log-softmax of everything.

    A vocabulary's worth of floats a token is most of what a small model moves through memory, so
    both passes go by a few rows at a time, which stay in the cache:

        lp_m = x[r_m, t_m] / tau - lse_r,    d lp_m / d x[r] = (one_hot(t_m) - softmax(x[r])) / tau
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, targets: Tensor, tau: float) -> Tensor:
        lse = torch.cat(
            [(piece / tau if tau != 1.0 else piece).logsumexp(-1) for piece in _pieces(logits)]
        )
        ctx.save_for_backward(logits, lse, rows, targets)
        ctx.tau = tau
        return logits[rows, targets] / tau - lse[rows]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        logits, lse, rows, targets = ctx.saved_tensors
        grad = grads[0] / ctx.tau
        paid = torch.zeros_like(lse).index_add_(0, rows, grad)
        out = torch.empty_like(logits)
        pieces = zip(*(_pieces(x) for x in (out, logits, lse, paid)), strict=True)
        for piece, given, size, share in pieces:
            torch.sub(given / ctx.tau if ctx.tau != 1.0 else given, size[:, None], out=piece)
            piece.exp_().mul_(-share[:, None])
        out.index_put_((rows, targets), grad, accumulate=True)
        return out, None, None, None


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = x.split(PIECE if x.device.type == "cpu" else max(len(x), 1))
    return found
