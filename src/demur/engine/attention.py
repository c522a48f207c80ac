"""Tree attention, registered with transformers under a name of its own.

A forest of sequences (``forest.py``) is fed as one row without padding, so every layer but
attention computes each token once. Attention is cut into parts, each a padded block of queries
against a block of keys: a run of tokens with itself, and a run with each of the runs above it. The
parts of one query are merged by their log-sum-exp, which is exact (arXiv 2205.14135, section 3.1):

    out = sum_i out_i * exp(lse_i - lse),     lse = log sum_i exp(lse_i)

Backward, each part is given the merged output and log-sum-exp; its own gradient then comes out as
that of the whole, so nothing but those two is kept.

Without a ``tree`` the function is transformers' own ``sdpa``: a model that has it set is used as
before by everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from demur.engine.forest import Forest, IntArray
from demur.errors import EngineError

NAME = "demur_tree"
REFUSED = ("softcap", "s_aux", "position_bias")  # they change the softmax, which parts do not know
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Tree(Protocol):
    """What the model is asked to compute with, handed to every layer."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """Outputs (T, heads, D) of queries (T, heads, D), keys and values (T, kv heads, D)."""
        ...


@dataclass(frozen=True)
class How:
    """The scale of the scores, and how many positions back a query sees (``None``: all)."""

    scale: float
    window: int | None = None


@dataclass(frozen=True)
class Part:
    """Queries (n, Lq) and the keys (n, Lk) that they see, as columns; -1 where there is none.

    A ``causal`` part is a run with itself: column i of its queries sees its keys up to i.
    ``visible`` (n, Lq, Lk) says it key by key instead.
    """

    queries: Tensor
    keys: Tensor
    causal: bool = False
    visible: Tensor | None = None
    fresh: bool = True  # the first part of its queries: there is nothing to merge with yet
    filled: Tensor = field(init=False)  # places of the queries that are real, in (n * Lq)
    columns: Tensor = field(init=False)  # and their columns
    key_filled: Tensor = field(init=False)
    key_columns: Tensor = field(init=False)

    def __post_init__(self) -> None:
        for name, block in (("", self.queries), ("key_", self.keys)):
            places = (block.flatten() >= 0).nonzero().squeeze(1)
            object.__setattr__(self, f"{name}filled", places)
            object.__setattr__(self, f"{name}columns", block.flatten()[places])

    def bias(
        self, positions: Tensor, offset: int, window: int | None, dtype: torch.dtype
    ) -> Tensor | None:
        """What is added to the scores, (n, 1, Lq or 1, Lk): 0 or the lowest number there is."""
        sees = self.visible
        if window is not None:
            at = positions[(self.queries + offset).clamp(min=0)][:, :, None]
            near = at - positions[self.keys.clamp(min=0)][:, None] < window
            if self.causal:
                near &= near.new_ones(near.shape[1:]).tril()
            sees = near if sees is None else sees & near
        if not self.causal and len(self.key_filled) < self.keys.numel():
            real = (self.keys >= 0)[:, None]
            sees = real if sees is None else sees & real
        if sees is None:
            return None
        zeros = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
        return zeros.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]


class Parts:
    """A forward pass over one row, cut into parts; every query has one that is fresh.

    ``positions`` (K,) are those of the key columns, of which the first ``offset`` come from
    ``past``: for a layer, its keys and values, each (offset, kv heads, D). ``keep`` is given all
    keys and values of a layer.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        positions: Tensor,
        past: Callable[[int], tuple[Tensor, Tensor]] | None = None,
        offset: int = 0,
        keep: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> None:
        self.parts = list(parts)
        self.positions = positions
        self.past, self.offset, self.keep = past, offset, keep
        self.reach = int(positions.max()) + 1 if len(positions) else 0
        self._biases: dict[tuple[int, int | None, torch.dtype], Tensor | None] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """Outputs (T, heads, D); see ``Tree``."""
        if self.past is not None:
            before = self.past(layer)
            key, value = torch.cat([before[0], key]), torch.cat([before[1], value])
        if self.keep is not None:
            self.keep(layer, key, value)
        if how.window is not None and how.window >= self.reach:
            how = How(how.scale)
        out: Tensor = _Merged.apply(query, key, value, self, how)  # type: ignore[no-untyped-call]
        return out

    def bias(self, number: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """The bias of a part, made once a pass and not once a layer."""
        slot = (number, window, dtype)
        if slot not in self._biases:
            self._biases[slot] = self.parts[number].bias(self.positions, self.offset, window, dtype)
        return self._biases[slot]


class _Merged(torch.autograd.Function):
    """Attention in parts, merged; the module's formulas."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: Parts, how: How
    ) -> Tensor:
        out = torch.empty_like(query)
        exact = torch.float64 if query.dtype == torch.float64 else torch.float32
        lse = query.new_empty(query.shape[:2], dtype=exact)
        for number, part in enumerate(parts.parts):
            bias = parts.bias(number, how.window, query.dtype)
            q, k, v = _block(part.queries, query), _block(part.keys, key), _block(part.keys, value)
            found, weight = _attend(q, k, v, bias, part.causal and bias is None, how.scale)
            new = found.transpose(1, 2).flatten(0, 1).index_select(0, part.filled)
            size = weight.transpose(1, 2).flatten(0, 1).index_select(0, part.filled)
            if part.fresh:
                out.index_copy_(0, part.columns, new)
                lse.index_copy_(0, part.columns, size)
                continue
            old, old_size = (x.index_select(0, part.columns) for x in (out, lse))
            both = torch.logaddexp(old_size, size)
            shares = [(s - both).exp()[..., None].to(out.dtype) for s in (old_size, size)]
            out.index_copy_(0, part.columns, old * shares[0] + new * shares[1])
            lse.index_copy_(0, part.columns, both)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.parts, ctx.how = parts, how
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        query, key, value, out, lse = ctx.saved_tensors
        parts, how = ctx.parts, ctx.how
        grad = grads[0].contiguous()
        totals = [torch.zeros_like(x) for x in (query, key, value)]
        for number, part in enumerate(parts.parts):
            bias = parts.bias(number, how.window, query.dtype)
            q, o, g = (_block(part.queries, x) for x in (query, out, grad))
            if len(part.filled) < part.queries.numel():  # padding pays nothing
                g = g * (part.queries >= 0)[:, None, :, None]
            k, v = _block(part.keys, key), _block(part.keys, value)
            size = _block(part.queries, lse[..., None]).squeeze(-1)
            causal = part.causal and bias is None
            found = _attend_backward(g, q, k, v, o, size, bias, causal, how.scale)
            places = ((part.filled, part.columns), *[(part.key_filled, part.key_columns)] * 2)
            for total, piece, (filled, columns) in zip(totals, found, places, strict=True):
                rows = piece.transpose(1, 2).flatten(0, 1).index_select(0, filled)
                total.index_add_(0, columns, rows)
        return (*totals, None, None)


def _block(columns: Tensor, rows: Tensor) -> Tensor:
    """Rows (T, heads, D) laid out as (n, heads, L, D)."""
    n, length = columns.shape
    picked = rows.index_select(0, columns.flatten().clamp(min=0))
    return picked.view(n, length, *rows.shape[1:]).transpose(1, 2)


def _has_flash(q: Tensor) -> bool:
    """Whether PyTorch's flash kernel takes it; elsewhere the same is done by plain products."""
    return q.device.type == "cpu"


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Outputs (n, heads, Lq, D) and log-sum-exp (n, heads, Lq) of a block."""
    if _has_flash(q):
        found: tuple[Tensor, Tensor] = _FLASH(q, k, v, 0.0, causal, attn_mask=bias, scale=scale)
        return found
    scores = _scores(q, k, bias, causal, scale)
    lse = scores.logsumexp(-1)
    probabilities = (scores - lse[..., None]).exp().to(v.dtype)
    return probabilities @ _widen(v, q), lse


def _attend_backward(
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a block's queries, keys and values, given the merged output and size."""
    if _has_flash(q):
        found: tuple[Tensor, Tensor, Tensor] = _FLASH_BACKWARD(
            g, q, k, v, out, lse.contiguous(), 0.0, causal, attn_mask=bias, scale=scale
        )
        return found
    wide_k, wide_v = _widen(k, q), _widen(v, q)
    p = (_scores(q, k, bias, causal, scale) - lse[..., None]).exp()
    delta = (g.float() * out.float()).sum(-1, keepdim=True)
    inner = (p * ((g @ wide_v.transpose(-1, -2)).float() - delta) * scale).to(q.dtype)
    heads = (k.shape[0], k.shape[1], -1, *k.shape[2:])
    grad_k = (inner.transpose(-1, -2) @ q).view(heads).sum(2)
    grad_v = (p.to(g.dtype).transpose(-1, -2) @ g).view(heads).sum(2)
    return inner @ wide_k, grad_k, grad_v


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, causal: bool, scale: float) -> Tensor:
    scores = (q @ _widen(k, q).transpose(-1, -2)).float() * scale
    if bias is not None:
        scores = scores + bias
    if causal:
        above = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(above, torch.finfo(scores.dtype).min)
    return scores


def _widen(x: Tensor, like: Tensor) -> Tensor:
    """Repeat the heads of keys or values for the queries that share them."""
    times = like.shape[1] // x.shape[1]
    return x if times == 1 else x.repeat_interleave(times, dim=1)


# -- how a forest is cut into parts ---------------------------------------------------------------


def dense_parts(forest: Forest, device: torch.device) -> list[Part]:
    """One part: each tree a block that sees itself through a mask. For short trees."""
    bounds = [*forest.roots.tolist(), len(forest)]
    block = _columns([(a, b - a) for a, b in pairwise(bounds)])
    ends = torch.from_numpy(forest.ends)[block.clamp(min=0)]
    query, key = block[:, :, None], block[:, None, :]
    visible = (key >= 0) & (key <= query) & (query < ends[:, None, :])
    visible |= torch.eye(block.shape[1], dtype=torch.bool)  # padding sees itself: no empty softmax
    return [Part(block.to(device), block.to(device), visible=visible.to(device))]


def merged_parts(forest: Forest, device: torch.device) -> list[Part]:
    """Each run with itself, then all that lies below a run with that run, level by level."""
    nodes = forest.nodes()
    own = [(n.start, n.length) for n in nodes]
    parts = []
    for members in _buckets([(length,) for _, length in own]):
        block = _columns([own[i] for i in members]).to(device)
        parts.append(Part(block, block, causal=True))
    inner = [n for n in nodes if n.last > n.start + n.length]
    for level in range(max((len(n.parents) for n in nodes), default=0)):
        above = [n for n in inner if len(n.parents) == level]
        below = [(n.start + n.length, n.last - n.start - n.length) for n in above]
        for members in _buckets([(b[1], n.length) for b, n in zip(below, above, strict=True)]):
            queries = _columns([below[i] for i in members]).to(device)
            keys = _columns([(above[i].start, above[i].length) for i in members]).to(device)
            parts.append(Part(queries, keys, fresh=False))
    return parts


def run_parts(
    lengths: Sequence[int], past: IntArray, offset: int, device: torch.device
) -> list[Part]:
    """Separate runs laid end to end, each after the keys that ``past`` (n, P) names (-1: none).

    The key columns of the runs themselves begin at ``offset``.
    """
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    parts = []
    runs = list(zip(starts, lengths, strict=True))
    for members in _buckets([(length,) for length in lengths]):
        block = _columns([runs[i] for i in members]).to(device)
        keys = torch.where(block >= 0, block + offset, -1)
        parts.append(Part(block, keys, causal=True))
    having = [i for i in range(len(runs)) if past.shape[1] and past[i, 0] >= 0]
    for members in _buckets([(lengths[i], int((past[i] >= 0).sum())) for i in having]):
        chosen = [having[i] for i in members]
        longest = int((past[chosen] >= 0).sum(1).max())
        keys = torch.from_numpy(past[chosen, :longest]).to(device)
        parts.append(Part(_columns([runs[i] for i in chosen]).to(device), keys, fresh=False))
    return parts


def _columns(runs: Sequence[tuple[int, int]]) -> Tensor:
    """Runs (start, length) as rows of columns (n, longest), -1 after a run's end."""
    starts, lengths = np.array([r[0] for r in runs]), np.array([r[1] for r in runs])
    offsets = np.arange(int(lengths.max()))
    rows = np.where(offsets < lengths[:, None], starts[:, None] + offsets, -1)
    return torch.from_numpy(rows)


def _buckets(sizes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Indices of entries whose sizes agree within a factor of two: padding stays below that."""
    found: dict[tuple[int, ...], list[int]] = {}
    for index, size in enumerate(sizes):
        found.setdefault(tuple(s.bit_length() for s in size), []).append(index)
    return list(found.values())


# -- the function that transformers calls ---------------------------------------------------------


def _tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    tree: Tree | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer, (1, heads, T, D) in and (1, T, heads, D) out."""
    if tree is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **more
        )
        return plain
    refused = [name for name in REFUSED if more.get(name) is not None]
    if refused or dropout:
        raise EngineError(f"tree attention knows no {', '.join(refused) or 'dropout'}")
    how = How(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window)
    rows = [x.squeeze(0).transpose(0, 1) for x in (query, key, value)]
    if torch.is_autocast_enabled(query.device.type):  # norms and rotations leave float32 behind
        rows = [x.to(torch.get_autocast_dtype(query.device.type)) for x in rows]
    layer: Any = module.layer_idx
    out = tree.attend(layer, rows[0], rows[1], rows[2], how)
    return out.unsqueeze(0), None


AttentionInterface.register(NAME, _tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def forward(
    model: PreTrainedModel, ids: Tensor, positions: Tensor, tree: Tree, columns: Tensor
) -> Tensor:
    """Logits (U, V), in float32, at ``columns`` (U,) of one row of tokens (T,) at ``positions``.

    Raises ``EngineError`` for a model that tree attention was not set on: it would see no mask.
    """
    if getattr(model.config.get_text_config(), "_attn_implementation", None) != NAME:
        raise EngineError(f"set tree attention on {type(model).__name__} first, with use_tree")
    out = model(
        input_ids=ids[None],
        position_ids=positions[None],
        # four dimensions: transformers takes it as made, and builds no mask of T x T itself
        attention_mask=torch.zeros((1, 1, 1, 1), device=ids.device),
        use_cache=False,
        logits_to_keep=columns,
        tree=tree,
    )
    logits: Tensor = out.logits.squeeze(0)
    return logits.float() if logits.dtype != torch.float64 else logits
