"""What was computed in earlier calls: later turns of a dialogue go on from there.

A batch that has been written leaves its keys and values here, by reference. A new prompt is looked
up among the token sequences of all batches kept; in sorted order the one that begins most like it
is a neighbour, so a lookup is two comparisons.

Only a prompt that goes on from a reply is served. Others may begin alike too, but a number computed
another way differs in its last bits, and the same question asked twice has to give the same bits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from demur.engine.forest import IntArray

Layers = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Found:
    """The ``length`` first tokens of a prompt stand in batch ``batch`` at flat ``places``."""

    length: int
    batch: int
    places: IntArray


class Remembered:
    """The keys and values of one batch, and the sequences that they belong to."""

    def __init__(
        self,
        prompts: Sequence[tuple[int, ...]],
        prefix: Layers,
        branch: Layers,
        rows: Sequence[Sequence[int]],
        owner: Tensor,
        place: Tensor,
    ) -> None:
        self.prefix, self.branch = prefix, branch
        self.prompts, self.rows = prompts, rows
        self.place = place.tolist()
        self.owner = owner[place].tolist()
        first = next(iter(prefix.values()))[0]
        self.width = first.shape[2]
        self.room = next(iter(branch.values()))[0].shape[2] if branch else 0
        self._sorted: list[tuple[tuple[int, ...], int]] | None = None

    @property
    def tokens(self) -> int:
        """Tokens of keys and values held."""
        return len(self.prompts) * self.width + len(self.rows) * self.room

    def find(self, prompt: tuple[int, ...]) -> tuple[int, int]:
        """How far a sequence here, reply and all, begins a prompt, and which it is (0: none)."""
        if self._sorted is None:
            written = (
                ((*self.prompts[o], *row[:-1]), r)
                for r, (o, row) in enumerate(zip(self.owner, self.rows, strict=True))
            )
            self._sorted = sorted(written)
        at = bisect_left(self._sorted, (prompt, -1))
        best = (0, -1)
        for sequence, row in self._sorted[max(at - 1, 0) : at + 1]:
            best = max(best, (_common(sequence, prompt), row))
        return best if best[0] > len(self.prompts[self.owner[best[1]]]) else (0, -1)

    def places(self, row: int, length: int) -> IntArray:
        """Where the first tokens of a row's sequence stand: prompts first, then branches."""
        owner, place = self.owner[row], self.place[row]
        prompt = len(self.prompts[owner])
        first = owner * self.width + np.arange(min(prompt, length))
        start = len(self.prompts) * self.width + place * self.room
        return np.concatenate([first, start + np.arange(max(length - prompt, 0))])

    def rows_of(self, layer: int, places: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (len(places), kv heads, D) of a layer."""
        cut = len(self.prompts) * self.width
        in_prompt = places < cut
        pair = []
        for side in (0, 1):
            block = self.prefix[layer][side]  # (B, kv heads, P, D)
            at = places[in_prompt]
            out = block.new_empty((len(places), block.shape[1], block.shape[3]))
            out[in_prompt] = block[at // self.width, :, at % self.width]
            if not bool(in_prompt.all()):
                at = places[~in_prompt] - cut
                out[~in_prompt] = self.branch[layer][side][at // self.room, :, at % self.room]
            pair.append(out)
        return pair[0], pair[1]


class History:
    """The latest batches, as many as ``budget`` tokens hold.

    ``clear`` it when the weights change.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.batches: list[Remembered] = []
        self.reused = 0  # tokens that did not have to be read again

    def clear(self) -> None:
        """Forget everything."""
        self.batches = []

    def add(self, batch: Remembered) -> None:
        """Keep a batch, and drop the oldest ones beyond the budget."""
        self.batches.append(batch)
        while self.batches and sum(b.tokens for b in self.batches) > self.budget:
            self.batches.pop(0)

    def find(self, prompt: tuple[int, ...]) -> Found:
        """The longest beginning of a prompt that is held; never all of it, the end is read anew."""
        best, batch, row = 0, -1, -1
        for number, held in enumerate(self.batches):
            length, which = held.find(prompt)
            length = min(length, len(prompt) - 1)
            if length > best:
                best, batch, row = length, number, which
        if batch < 0:
            return Found(0, -1, np.zeros(0, dtype=np.int64))
        self.reused += best
        return Found(best, batch, self.batches[batch].places(row, best))

    def gather(
        self, found: Sequence[Found]
    ) -> tuple[IntArray, Callable[[int], tuple[Tensor, Tensor]] | None]:
        """Columns (n, P) of what each prompt has behind it, and the keys and values of a layer."""
        width = max((f.length for f in found), default=0)
        columns = np.full((len(found), width), -1, dtype=np.int64)
        if not width:
            return columns, None
        wanted: list[tuple[Remembered, Tensor]] = []
        used = 0
        for number, held in enumerate(self.batches):
            mine = [i for i, f in enumerate(found) if f.batch == number]
            if not mine:
                continue
            places = np.concatenate([found[i].places for i in mine])
            distinct, back = np.unique(places, return_inverse=True)
            ends = np.cumsum([found[i].length for i in mine])
            for i, piece in zip(mine, np.split(back + used, ends[:-1]), strict=True):
                columns[i, : len(piece)] = piece
            device = next(iter(held.prefix.values()))[0].device
            wanted.append((held, torch.from_numpy(distinct).to(device)))
            used += len(distinct)

        def rows(layer: int) -> tuple[Tensor, Tensor]:
            pairs = [held.rows_of(layer, places) for held, places in wanted]
            return torch.cat([k for k, _ in pairs]), torch.cat([v for _, v in pairs])

        return columns, rows


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    return next(i for i in range(size) if a[i] != b[i])
