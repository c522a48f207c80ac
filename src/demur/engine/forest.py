"""Sequences that begin alike, as trees of tokens in depth-first order. Plain numpy.

Laid out depth first, a token's descendants are exactly the columns that follow it up to an end. One
array therefore says who may attend to whom:

    query q sees key k   when   k <= q < ends[k]

whatever the depth of the tree, and a token computed once serves every sequence through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Node:
    """A run of columns with no branching inside: ``parents`` are the nodes above, root first."""

    start: int
    length: int
    parents: tuple[int, ...]
    last: int  # the column after the last of its descendants


@dataclass(frozen=True)
class Forest:
    """Tokens in depth-first order; every array has one entry a column, (T,).

    ``roots`` holds the first column of each tree. ``columns[s]`` gives, for each token of sequence
    s, the column where it stands.
    """

    tokens: IntArray
    positions: IntArray
    ends: IntArray
    roots: IntArray
    columns: list[IntArray]

    def __len__(self) -> int:
        return len(self.tokens)

    def nodes(self) -> list[Node]:
        """The runs between branchings, in depth-first order."""
        ends, positions = self.ends, self.positions
        if not len(ends):
            return []
        jump = (positions[1:] != positions[:-1] + 1) | (ends[1:] != ends[:-1])
        starts = np.concatenate([[0], 1 + np.nonzero(jump)[0]])
        lengths = np.diff([*starts.tolist(), len(ends)])
        found: list[Node] = []
        path: list[int] = []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            while path and found[path[-1]].last <= start:
                path.pop()
            found.append(Node(start, length, tuple(path), int(ends[start])))
            path.append(len(found) - 1)
        return found


def plant(
    sequences: Sequence[Sequence[int]], prompts: Sequence[int], *, fine: bool = True
) -> Forest:
    """Lay sequences out as a forest; ``prompts`` says how long the prompt of each is.

    Sequences share a tree where one's whole prompt begins the other: replies to one prompt, and
    later turns of one dialogue. Within a tree, ``fine`` shares every token that two have in common;
    otherwise only whole prompts and whole sequences are shared, which leaves fewer, longer runs.
    """
    order = sorted(range(len(sequences)), key=lambda s: tuple(sequences[s]))
    total = sum(len(s) for s in sequences)
    tokens, positions, ends = (np.zeros(total, dtype=np.int64) for _ in range(3))
    columns: list[IntArray] = [np.zeros(0, dtype=np.int64) for _ in sequences]
    roots: list[int] = []
    used = 0
    before: IntArray = np.zeros(0, dtype=np.int64)
    path: IntArray = np.zeros(0, dtype=np.int64)
    marks: list[int] = []  # lengths at which the path may branch: where a prompt or sequence ends
    for s in order:
        row = np.asarray(sequences[s], dtype=np.int64)
        alike = _alike(before, row)
        marks = [m for m in {*marks, prompts[s]} if 0 < m <= alike]
        shared = (alike if fine else max(marks)) if marks else 0
        ends[path[shared:]] = used
        new = len(row) - shared
        tokens[used : used + new] = row[shared:]
        positions[used : used + new] = np.arange(shared, len(row))
        path = np.concatenate([path[:shared], np.arange(used, used + new)])
        if not shared and new:
            roots.append(used)
        columns[s], before = path, row
        marks += [prompts[s], len(row)]
        used += new
    ends[path] = used
    return Forest(
        tokens[:used], positions[:used], ends[:used], np.asarray(roots, dtype=np.int64), columns
    )


def families(sequences: Sequence[Sequence[int]], prompts: Sequence[int]) -> list[list[int]]:
    """Which sequences ``plant`` would put into one tree, each list in the order of its tokens."""
    order = sorted(range(len(sequences)), key=lambda s: tuple(sequences[s]))
    found: list[list[int]] = []
    marks: set[int] = set()
    before: IntArray = np.zeros(0, dtype=np.int64)
    for s in order:
        row = np.asarray(sequences[s], dtype=np.int64)
        alike = _alike(before, row)
        marks = {m for m in marks | {prompts[s]} if 0 < m <= alike}
        if marks:
            found[-1].append(s)
        else:
            found.append([s])
        marks |= {prompts[s], len(row)}
        before = row
    return found


def join(trees: Sequence[Forest]) -> Forest:
    """Forests side by side; their sequences in that order."""
    offsets = np.cumsum([0, *(len(t) for t in trees)])[:-1].tolist()
    pairs = list(zip(trees, offsets, strict=True))
    return Forest(
        np.concatenate([t.tokens for t in trees]),
        np.concatenate([t.positions for t in trees]),
        np.concatenate([t.ends + offset for t, offset in pairs]),
        np.concatenate([t.roots + offset for t, offset in pairs]),
        [columns + offset for t, offset in pairs for columns in t.columns],
    )


def _alike(a: IntArray, b: IntArray) -> int:
    """How many tokens two sequences begin with in common."""
    size = min(len(a), len(b))
    differ = np.nonzero(a[:size] != b[:size])[0]
    return int(differ[0]) if len(differ) else size
