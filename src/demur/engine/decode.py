"""One batch being written: prompts read once, then one token a row at a time.

``TreeDecoder`` keeps the keys and values of a prompt once for all of its rows: a step is one
product of a prompt's queries with that prompt, and one of each row with what it wrote itself.
``RowsDecoder`` gives every row a cache of its own, transformers' own, for models that cannot take
tree attention; prompts of one length only, so that nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demur.engine.attention import How, Parts, forward, run_parts
from demur.engine.history import Found, History, Remembered

Tokens = tuple[int, ...]


class Decoder(Protocol):
    """What the sampler drives; ``alive`` rows keep their order, given as indices of all rows."""

    def begin(self) -> Tensor:
        """Read the prompts; logits (prompts, V) of what comes first."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token to every row alive, (N,); logits (N, V) of what comes next."""
        ...

    def leave(self, keep: Tensor) -> Tensor:
        """Let rows go: ``keep`` (N,) says which stay; returns their new order as old places."""
        ...


class TreeDecoder:
    """Branches over shared prompts; ``counts`` says how many rows each prompt has."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Tokens],
        counts: Sequence[int],
        max_tokens: int,
        history: History | None = None,
    ) -> None:
        self.model, self.device = model, model.device
        self.prompts, self.history, self.max_tokens = prompts, history, max_tokens
        none = Found(0, -1, np.zeros(0, dtype=np.int64))
        self.found = [history.find(p) if history else none for p in prompts]
        self.sizes = torch.tensor([len(p) for p in prompts], device=self.device)
        # the prompt of every row, in the order of the rows as they stand in the buffers
        self.owner = torch.repeat_interleave(
            torch.arange(len(prompts), device=self.device),
            torch.tensor(counts, device=self.device),
        )
        self.alive = len(self.owner)
        self.order = torch.arange(self.alive, device=self.device)  # original row of every place
        self.written = 0
        self.prefix: dict[int, tuple[Tensor, Tensor]] = {}  # (B, kv heads, P, D)
        self.branch: dict[int, tuple[Tensor, Tensor]] = {}  # (rows, kv heads, max_tokens, D)
        self._slots()

    # -- reading ----------------------------------------------------------------------------------

    def begin(self) -> Tensor:
        """Read what of each prompt is not remembered."""
        fresh = [p[f.length :] for p, f in zip(self.prompts, self.found, strict=True)]
        lengths = [len(f) for f in fresh]
        past, gather = (
            self.history.gather(self.found)
            if self.history is not None
            else (np.full((len(fresh), 0), -1, dtype=np.int64), None)
        )
        offset = int(past.max(initial=-1)) + 1
        starts = offset + np.cumsum([0, *lengths[:-1]])
        width = max(len(p) for p in self.prompts)
        columns = np.full((len(self.prompts), width), -1, dtype=np.int64)
        for i, (f, start, n) in enumerate(zip(self.found, starts, lengths, strict=True)):
            columns[i, : f.length] = past[i, : f.length]
            columns[i, f.length : f.length + n] = np.arange(start, start + n)
        positions = np.zeros(offset + sum(lengths), dtype=np.int64)
        for row in columns:
            real = row[row >= 0]
            positions[real] = np.arange(len(real))
        block = torch.from_numpy(columns).to(self.device)
        self.padding = block < 0 if bool((block < 0).any()) else None
        index = block.clamp(min=0).flatten()

        def keep(layer: int, key: Tensor, value: Tensor) -> None:
            shape = (len(self.prompts), width, *key.shape[1:])
            pair = [x.index_select(0, index).view(shape).transpose(1, 2) for x in (key, value)]
            self.prefix[layer] = (pair[0].contiguous(), pair[1].contiguous())

        where = torch.from_numpy(positions).to(self.device)
        parts = run_parts(lengths, past, offset, self.device)
        tree = Parts(parts, where, gather, offset, keep)
        ids = torch.tensor([t for f in fresh for t in f], device=self.device)
        last = torch.from_numpy(np.cumsum(lengths) - 1).to(self.device)
        return forward(self.model, ids, where[offset:], tree, last)

    # -- writing ----------------------------------------------------------------------------------

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token to every row alive."""
        positions = self.sizes[self.owner[: self.alive]] + self.written
        everything = torch.arange(self.alive, device=self.device)
        logits = forward(self.model, tokens, positions, self, everything)
        self.written += 1
        return logits

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """Outputs (N, heads, D): every row with its prompt and with what it has written."""
        n, heads, size = query.shape
        shared, own = self.prefix[layer], self._write(layer, key, value)
        kv = key.shape[1]
        grouped = query.reshape(n, kv, heads // kv, size)
        scores = torch.cat([self._grid(grouped, shared[0]), grouped @ own[0].mT], dim=-1)
        scores = scores.float() * how.scale if scores.dtype != torch.float64 else scores * how.scale
        hidden = self._hidden(shared[0].shape[2], how.window)
        if hidden is not None:
            scores.masked_fill_(hidden[:, None, None], torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1).to(value.dtype)
        before, after = weights.split([shared[0].shape[2], self.written + 1], dim=-1)
        out: Tensor = self._grid(before, shared[1].mT) + after @ own[1]
        return out.reshape(n, heads, size)

    def _write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the row's new token to its branch; keys and values (N, kv heads, t, D)."""
        if layer not in self.branch:
            shape = (self.alive, key.shape[1], self.max_tokens, key.shape[2])
            self.branch[layer] = (key.new_empty(shape), value.new_empty(shape))
        pair = self.branch[layer]
        for held, new in zip(pair, (key, value), strict=True):
            held[: self.alive, :, self.written] = new
        end = self.written + 1
        return pair[0][: self.alive, :, :end], pair[1][: self.alive, :, :end]

    def _grid(self, rows: Tensor, shared: Tensor) -> Tensor:
        """Rows (N, kv heads, r, X) times what their prompt shares, (B, kv heads, Y, X)."""
        kv, r, size = rows.shape[1:]
        prompts = len(self.prompts)
        if self.regular:
            grid = rows.reshape(prompts, self.widest, kv, r, size)
        else:
            grid = rows.new_zeros((prompts * self.widest, kv, r, size))
            grid.index_copy_(0, self.slots, rows)
            grid = grid.view(prompts, self.widest, kv, r, size)
        grid = grid.transpose(1, 2).reshape(prompts, kv, self.widest * r, size)
        found = (grid @ shared.mT).view(prompts, kv, self.widest, r, -1).transpose(1, 2)
        flat = found.reshape(prompts * self.widest, kv, r, -1)
        return flat if self.regular else flat.index_select(0, self.slots)

    def _hidden(self, width: int, window: int | None) -> Tensor | None:
        """Which scores (N, P + t) count for nothing: padding, and what lies beyond the window."""
        own = self.written + 1
        owner = self.owner[: self.alive]
        hidden = None
        if self.padding is not None:
            hidden = torch.zeros((self.alive, width + own), dtype=torch.bool, device=self.device)
            hidden[:, :width] = self.padding[owner]
        if window is not None and int(self.sizes.max()) + own > window:
            here = self.sizes[owner][:, None] + self.written
            before = torch.arange(width, device=self.device).expand(self.alive, -1)
            after = self.sizes[owner][:, None] + torch.arange(own, device=self.device)
            far = here - torch.cat([before, after], dim=1) >= window
            hidden = far if hidden is None else hidden | far
        return hidden

    # -- leaving ----------------------------------------------------------------------------------

    def leave(self, keep: Tensor) -> Tensor:
        """Rows that end change places with the last ones, so that few are moved."""
        staying = int(keep.sum())
        order = torch.arange(self.alive, device=self.device)
        holes = (~keep[:staying]).nonzero().squeeze(1)
        movers = staying + keep[staying:].nonzero().squeeze(1)
        order[holes], order[movers] = movers, holes
        a, b = torch.cat([holes, movers]), torch.cat([movers, holes])
        for pair in self.branch.values():
            for held in pair:
                held[a, :, : self.written] = held[b, :, : self.written]
        for held in (self.owner, self.order):
            held[a] = held[b]
        self.alive = staying
        self._slots()
        return order[:staying]

    def _slots(self) -> None:
        """Give every row a place in the grid of prompts x rows."""
        owner = self.owner[: self.alive]
        per = torch.bincount(owner, minlength=len(self.prompts))
        self.widest = int(per.max()) if self.alive else 0
        sorted_owner, by = torch.sort(owner, stable=True)
        rank = torch.arange(self.alive, device=self.device) - (per.cumsum(0) - per)[sorted_owner]
        self.slots = torch.empty_like(owner)
        self.slots[by] = sorted_owner * self.widest + rank
        full = self.alive == len(self.prompts) * self.widest
        in_order = torch.arange(self.alive, device=self.device)
        self.regular = full and torch.equal(self.slots, in_order)

    def remember(self, rows: Sequence[Sequence[int]]) -> Remembered:
        """What a later turn may go on from; ``rows`` are the tokens that each row drew."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(self.order), device=self.device)
        return Remembered(self.prompts, self.prefix, self.branch, rows, self.owner, place)


class RowsDecoder:
    """Every row has a cache of its own."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Tokens], counts: Sequence[int]
    ) -> None:
        self.model, self.device = model, model.device
        self.ids = torch.tensor(prompts, device=self.device)
        self.counts = torch.tensor(counts, device=self.device)
        self.cache = DynamicCache(config=model.config)
        self.at = self.ids.shape[1]
        self.branched = False

    def begin(self) -> Tensor:
        """Read the prompts."""
        return self._forward(self.ids, 0)

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token to every row alive."""
        if not self.branched:
            self._select(torch.repeat_interleave(torch.arange(len(self.ids)), self.counts))
            self.branched = True
        self.at += 1
        return self._forward(tokens[:, None], self.at - 1)

    def leave(self, keep: Tensor) -> Tensor:
        """Drop the rows that end."""
        places = keep.nonzero().squeeze(1)
        if not self.branched:
            owners = torch.repeat_interleave(torch.arange(len(self.ids)), self.counts)
            self._select(owners.to(self.device)[places])
            self.branched = True
        else:
            self._select(places)
        return places

    def _select(self, places: Tensor) -> None:
        self.cache.batch_select_indices(places.to(self.device))

    def _forward(self, ids: Tensor, start: int) -> Tensor:
        positions = torch.arange(start, start + ids.shape[1], device=self.device)
        out = self.model(
            input_ids=ids,
            attention_mask=torch.ones(
                (len(ids), start + ids.shape[1]), dtype=torch.long, device=self.device
            ),
            position_ids=positions.expand(len(ids), -1),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1]
        return logits if logits.dtype == torch.float64 else logits.float()
