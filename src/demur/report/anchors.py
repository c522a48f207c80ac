"""What the anchors were worth: discernment against how right and how dear each one was.

Both figures are of arms that were paid by an anchor; they are drawn where there are at least three
of them, as a curve needs. Arms of one recipe that differ in one setting are joined by a line.
"""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from demur.report.data import Arm
from demur.report.figures import Figure, escaped, finish, whisker
from demur.report.looks import Style
from demur.report.text import interval, number

METRIC = "discernment"
LEAST = 3
AXES = {
    "accuracy": "share of verdicts that were right, at the start",
    "budget": "labels and anchor calls used (logarithmic)",
}


def worth(arms: Mapping[str, Arm], look: Mapping[str, Style]) -> dict[str, Figure]:
    """The figures by axis, "accuracy" and "budget"; an axis with too few arms is left out."""
    placed = {
        "accuracy": {name: arm.anchor_accuracy for name, arm in arms.items()},
        "budget": {name: _budget(arm) for name, arm in arms.items()},
    }
    found = {}
    for axis, at in placed.items():
        points = {
            name: (x, y)
            for name, x in at.items()
            if x is not None and (y := _mean(arms[name])) is not None
        }
        if len(points) >= LEAST:
            found[axis] = _figure(axis, points, arms, look)
    return found


def _figure(
    axis: str,
    points: Mapping[str, tuple[float, float]],
    arms: Mapping[str, Arm],
    look: Mapping[str, Style],
) -> Figure:
    figure = go.Figure()
    lines, still = _lines(points)
    for names in lines:
        along = sorted(points[name] for name in names)
        figure.add_scatter(
            x=[x for x, _ in along], y=[y for _, y in along], mode="lines", hoverinfo="skip",
            line={"color": "var(--iso)", "width": 1.4},
        )  # fmt: skip
    untrained = next((y for n in arms if arms[n].untrained and (y := _mean(arms[n]))), None)
    if untrained is not None:
        figure.add_hline(y=untrained, line={"color": "var(--iso)", "width": 1.2, "dash": "dot"})
    for name, (x, y) in points.items():
        if name in still:
            continue
        found = arms[name].metrics[METRIC]
        short = name.rpartition("=")[2].removeprefix("anchored_")
        shown = number(x) if axis == "accuracy" else f"{x:,.0f}"
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers+text",
            text=[escaped(short)],
            textposition="bottom left" if as_float(short) is None else "top left",
            textfont={"size": 11, "color": look[name].colour},
            legendgroup=look[name].key,
            marker={"size": 10, "symbol": look[name].symbol, "color": look[name].colour},
            error_y=whisker(found, look[name].colour),
            hovertemplate=(
                f"<b>{escaped(name)}</b><br>{AXES[axis]}: {shown}"
                f"<br>J {number(y)} {interval(found.low, found.high)}<extra></extra>"
            ),
        )
    figure.update_layout(margin={"l": 52, "r": 12, "t": 10, "b": 46})
    if axis == "budget":
        figure.update_xaxes(title=AXES[axis], type="log")
    else:
        figure.update_xaxes(title=AXES[axis])
    figure.update_yaxes(title="discernment", range=[-0.05, 1.03], dtick=0.25)
    return finish(figure)


def _lines(points: Mapping[str, tuple[float, float]]) -> tuple[list[list[str]], set[str]]:
    """Arms that are a line, and those that another axis shows.

    A line is the arms of one recipe that differ in one number, with the recipe as it comes. Where
    they all lie at the same place, that setting is not what this axis is about.
    """
    sweeps: dict[tuple[str, str], list[str]] = {}
    for name in points:
        recipe, *settings = name.split("@")
        key, _, value = settings[0].partition("=") if len(settings) == 1 else ("", "", "")
        if as_float(value) is not None:
            sweeps.setdefault((recipe, key), []).append(name)
    lines, still = [], set()
    for (recipe, _), names in sweeps.items():
        whole = names + ([recipe] if recipe in points else [])
        at = [points[name][0] for name in whole]
        if len(whole) > 1 and max(at) - min(at) <= 0.02 * max(at):
            still.update(names)
        elif len(whole) > 1:
            lines.append(whole)
    return lines, still


def as_float(text: str) -> float | None:
    """The number that a setting is, if it is one."""
    try:
        return float(text)
    except ValueError:
        return None


def _mean(arm: Arm) -> float | None:
    found = arm.metrics.get(METRIC)
    return None if found is None else found.mean


def _budget(arm: Arm) -> float | None:
    """A budget of nothing has no place on a logarithmic axis."""
    found = arm.metrics.get("anchor_budget")
    return found.mean if found is not None and found.mean else None
