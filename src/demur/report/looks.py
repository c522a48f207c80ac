"""How an arm looks, the same in every figure and legend, and where its label may stand.

Colours keep apart under the common colour-vision deficiencies, and none stands alone: symbols tell
the arms apart where they are points, a dash pattern where they are lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Box: TypeAlias = tuple[float, float, float, float]

SYMBOL_PATHS = {
    "circle": "M7 2a5 5 0 1 0 .01 0z",
    "square": "M2.5 2.5h9v9h-9z",
    "diamond": "M7 1l6 6-6 6-6-6z",
    "triangle-up": "M7 1.5l6 10.5H1z",
    "triangle-down": "M7 12.5L1 2h12z",
    "cross": "M5 1h4v4h4v4H9v4H5V9H1V5h4z",
    "x": "M3.5 1L7 4.5 10.5 1 13 3.5 9.5 7 13 10.5 10.5 13 7 9.5 3.5 13 1 10.5 4.5 7 1 3.5z",
    "pentagon": "M7 1l6 4.4-2.3 7.1H3.3L1 5.4z",
    "star": "M7 .8l1.8 4 4.4.4-3.3 2.9 1 4.3L7 10.1l-3.9 2.3 1-4.3L.8 5.2l4.4-.4z",
    "hexagram": "M7 .5l2 3.3h4L11 7l2 3.2H9L7 13.5 5 10.2H1L3 7 1 3.8h4z",
}
"""Each plotly symbol as an SVG path in a 14 by 14 box, for the page's own legend."""
SYMBOLS = tuple(SYMBOL_PATHS)
DASH_ARRAYS = {
    "solid": "none",
    "dash": "6 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "10 4",
    "longdashdot": "10 3 2 3",
}
DASHES = tuple(DASH_ARRAYS)
COLOURS = 9
PLANE_WIDTH, PLANE_HEIGHT = 544.0, 521.0
"""Pixels from 0 to 1 of the resist-accept plane on a wide screen, where labels are shown."""


@dataclass(frozen=True, slots=True)
class Style:
    """How one arm looks in every figure: an id, a colour, a symbol, a dash."""

    key: str
    colour: str
    symbol: str
    dash: str
    width: float


def styles(arms: Sequence[str], untrained: frozenset[str], focus: str | None) -> dict[str, Style]:
    """One style an arm; untrained models are grey, the ``focus`` arm is drawn bolder."""
    result: dict[str, Style] = {}
    trained = 0
    for index, name in enumerate(arms):
        if name in untrained:
            result[name] = Style(f"a{index}", "var(--arm-seed)", "circle", "dot", 2.0)
            continue
        result[name] = Style(
            key=f"a{index}",
            colour=f"var(--arm-{trained % COLOURS})",
            symbol=SYMBOLS[(trained + 1) % len(SYMBOLS)],
            dash=DASHES[trained % len(DASHES)] if name != focus else "solid",
            width=3.0 if name == focus else 1.75,
        )
        trained += 1
    return result


def label_spot(
    label: str, at: tuple[float, float], obstacles: Sequence[Box], taken: list[Box]
) -> tuple[float, float, str]:
    """A place beside a mark where its label covers no other label, mark or whisker (greedy).

    ``at`` and the boxes are in pixels of the plot, y upwards. Returns the shift in pixels and the
    side of the label that is anchored there, and adds the label's box to ``taken``.
    """
    wide = 7.0 * len(label)
    spots: list[tuple[float, float, str]] = []
    for reach in (12.0, 22.0, 32.0, 46.0, 62.0):
        spots += [(reach, 0, "left"), (-reach, 0, "right"), (0, reach + 4, "center")]
        spots += [(0, -reach - 4, "center"), (reach, reach, "left"), (reach, -reach, "left")]
        spots += [(-reach, reach, "right"), (-reach, -reach, "right"), (2 * reach, -reach, "left")]
    best: tuple[float, tuple[float, float, str], Box] | None = None
    for dx, dy, anchor in spots:
        left = at[0] + dx - {"left": 0.0, "right": wide, "center": wide / 2}[anchor]
        box = (left, at[1] + dy - 8, left + wide, at[1] + dy + 8)
        outside = max(0.0, -15 - box[0]) + max(0.0, box[2] - PLANE_WIDTH - 15)
        outside += max(0.0, box[3] - PLANE_HEIGHT - 18)
        cost = outside * 5 + abs(dx) / 2 + abs(dy)
        cost += sum(300 for other in taken if _overlap(box, other))
        cost += sum(80 for other in obstacles if _overlap(box, other))
        if best is None or cost < best[0]:
            best = (cost, (dx, dy, anchor), box)
    assert best is not None
    taken.append(best[2])
    return best[1]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
