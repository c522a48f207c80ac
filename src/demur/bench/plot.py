"""A bench as a page with two plots, and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from demur.runlog import atomic_write

Row = Mapping[str, Any]
COLOURS = {
    "sampling": "#3b6fb6",
    "update": "#c8553d",
    "step": "#4c9a6a",
    "memory": "#8a6bb1",
    "share": "#7f7f7f",
}
LINES = ("#3b6fb6", "#c8553d", "#4c9a6a", "#8a6bb1", "#b58a2a", "#3f9aa8", "#7f7f7f", "#c26fa0")


def size_of(row: Row) -> str:
    """Millions of parameters.

    >>> size_of({"params": 8_600_000})
    '8.6M'
    """
    return f"{row['params'] / 1e6:.1f}M"


def figure(rows: Sequence[Row]) -> go.Figure:
    """How many times better, by measure and case; and seconds along each axis of growth."""
    bars = [r for r in rows if r["measure"] in COLOURS and r["ratio"] and r["measure"] != "share"]
    grown = [r for r in rows if r.get("points")]
    made = make_subplots(
        1, 2, column_widths=[0.58, 0.42], horizontal_spacing=0.1,
        subplot_titles=("times better than the other side", "seconds of a step as it grows"),
    )  # fmt: skip
    for measure in COLOURS:
        mine = [r for r in bars if r["measure"] == measure]
        if mine:
            made.add_bar(
                y=[_name(r) for r in mine],
                x=[r["ratio"] for r in mine],
                text=[f"{r['ratio']:.1f}" for r in mine],
                orientation="h",
                name=measure,
                marker_color=COLOURS[measure],
                row=1,
                col=1,
            )
    for colour, row in zip(LINES * (1 + len(grown) // len(LINES)), grown, strict=False):
        made.add_scatter(
            x=[x for x, _ in row["points"]],
            y=[y for _, y in row["points"]],
            mode="lines+markers",
            name=f"{row['case']}, {size_of(row)}: exponent {row['ours']:.2f}",
            line={"color": colour},
            row=1,
            col=2,
        )
    made.add_vline(x=1, line_dash="dot", line_color="#555", row=1, col=1)
    made.update_xaxes(type="log", row=1, col=2)
    made.update_yaxes(type="log", row=1, col=2)
    made.update_yaxes(autorange="reversed", row=1, col=1)
    made.update_layout(
        template="plotly_white",
        barmode="overlay",  # one bar a line, whatever its measure
        height=max(420, 24 * len(bars) + 140),
        width=1400,
        margin={"l": 260, "r": 20, "t": 50, "b": 40},
        legend={"y": 1, "yanchor": "top"},
    )
    made.update_traces(textposition="outside", cliponaxis=False, selector={"type": "bar"})
    return made


def _name(row: Row) -> str:
    beside = ", TRL" if row["measure"] == "memory" and "TRL" in row["against"] else ""
    return f"{row['measure']} {row['case']}, {size_of(row)}{beside}"


def write_plot(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write ``bench.html``, which needs no network."""
    page = figure(found["rows"]).to_html(include_plotlyjs=True, full_html=True)
    return atomic_write(folder / "bench.html", page)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| measure | case | parameters | against | demur | other | ratio | unit |",
             "|---|---|---:|---|---:|---:|---:|---|"]  # fmt: skip
    for row in rows:
        figures = [_figure(row[side]) for side in ("ours", "theirs", "ratio")]
        cells = [row["measure"], row["case"], size_of(row), row["against"], *figures, row["unit"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    """Three digits; a dash for what was not measured."""
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
