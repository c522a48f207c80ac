"""What a person sees while something runs: progress bars and tables (rich)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from demur.measure import Estimate

SHOWN = (
    ("accuracy_alone", "alone"),
    ("resist", "resist"),
    ("accept", "accept"),
    ("discernment", "J"),
    ("conformity", "conform"),
    ("ece", "ECE"),
    ("auroc", "AUROC"),
    ("brier_skill", "skill"),
    ("confidence_mean", "conf"),
    ("bayes_regret", "regret"),
    ("coverage", "cover"),
    ("anchor_budget", "budget"),
)
NARROW = ("accuracy_alone", "resist", "accept", "discernment", "ece", "auroc", "brier_skill")
WIDE = 112  # columns that the whole table needs

out = Console()
err = Console(stderr=True)


def number(value: float | None) -> str:
    """A figure as tables show it; a dash for what is undefined.

    >>> number(0.5), number(-0.04), number(1200.0), number(None)
    ('.500', '-.040', '1,200', '–')
    """
    if value is None or value != value:
        return "–"
    if abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def results_table(
    arms: Mapping[str, Mapping[str, Mapping[str, Any]]],
    baselines: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    title: str = "",
) -> Table:
    """Arms x main metrics, baselines below a line; fewer metrics on a narrow terminal."""
    shown = [(m, label) for m, label in SHOWN if out.width >= WIDE or m in NARROW]
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("arm", no_wrap=True)
    for _, label in shown:
        table.add_column(label, justify="right", no_wrap=True)
    for name, metrics in arms.items():
        table.add_row(escape(name), *(number(metrics.get(m, {}).get("mean")) for m, _ in shown))
    if baselines:
        table.add_section()
        for name, metrics in baselines.items():
            row = (number(metrics.get(m, {}).get("mean")) for m, _ in shown)
            table.add_row(f"[dim]{escape(name)}[/dim]", *row)
    return table


def show_results(result: Mapping[str, Any], page: object, more: Sequence[str] = ()) -> None:
    """Print an evaluation: its table, its sentences and ``more`` of them, where the page lies."""
    out.print(results_table(result["arms"], result["baselines"], "Results"))
    for sentence in (*result["verdict"]["sentences"], *more, f"Report: {page}"):
        out.print(sentence, highlight=False, markup=False, soft_wrap=True)


def verdict_table(criteria: Sequence[Mapping[str, Any]]) -> Table:
    """Each criterion with its rule, its value and whether it holds."""
    table = Table(title="Criteria, fixed before the runs", title_justify="left")
    for name in ("criterion", "metric", "rule", "value", "holds"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for c in criteria:
        held = "[green]yes[/green]" if c["passed"] else "[red]no[/red]"
        table.add_row(escape(c["name"]), c["metric"], c["rule"], number(c["value"]), held)
    return table


def bar(*, quiet: bool = False) -> Progress:
    """A progress bar with count, time spent and time left; nothing where no terminal shows it."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=err,
        disable=quiet or not err.is_terminal,
    )


def bench_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Both sides of every row of a bench, and their ratio."""
    table = Table(header_style="bold")
    for name in ("measure", "case", "params", "against"):
        table.add_column(name, no_wrap=name in ("measure", "params"), overflow="fold")
    for name in ("demur", "other", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for row in rows:
        size = f"{row['params'] / 1e6:.1f}M"
        figures = (number(row[side]) for side in ("ours", "theirs"))
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        table.add_row(
            row["measure"], row["case"], size, row["against"], *figures, ratio, row["unit"]
        )
    return table


@contextmanager
def spinner(text: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show that something is going on; gives the function that says what."""
    if quiet or not err.is_terminal:
        yield lambda _: None
        return
    with err.status(escape(text)) as status:
        yield lambda said: status.update(escape(said))


def step_note(line: Mapping[str, Any]) -> str:
    """The last step in a few words."""
    parts = [
        f"{label} {number(line.get(key))}"
        for key, label in (
            ("reward", "reward"),
            ("loss", "loss"),
            ("adopts_wrong", "adopts wrong"),
            ("adopts_right", "right"),
            ("confidence_mean", "conf"),
        )
        if line.get(key) is not None
    ]
    return ", ".join(parts[:4])


class StudyDisplay(AbstractContextManager["StudyDisplay"]):
    """A live bar and table of a study; plain lines where there is no terminal, nothing if quiet."""

    def __init__(self, runs: int, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live: Live | None = None
        self.progress = bar()
        self.overall = self.progress.add_task("study", total=runs, note="")
        self.current: dict[tuple[str, int], TaskID] = {}
        self.results: dict[str, dict[str, dict[str, Any]]] = {}

    def __enter__(self) -> StudyDisplay:
        if not self.quiet and err.is_terminal:
            self.live = Live(self._view(), console=err, refresh_per_second=4)
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def _view(self) -> Group:
        table = results_table(self.results) if self.results else Text("")
        return Group(table, self.progress)

    def _refresh(self) -> None:
        if self.live is not None:
            self.live.update(self._view())

    def _say(self, text: str) -> None:
        if self.live is None and not self.quiet:
            err.print(text, highlight=False, markup=False, soft_wrap=True)

    def phase(self, text: str) -> None:
        """Something that takes a while begins."""
        self.progress.update(self.overall, note=text)
        self._say(text)
        self._refresh()

    def begin(self, arm: str, seed: int, steps: int) -> None:
        """A run begins."""
        label = f"{arm}, seed {seed}"
        self.current[arm, seed] = self.progress.add_task(label, total=steps, note="")
        self._say(f"{label}: {steps} steps")
        self._refresh()

    def step(self, arm: str, seed: int, line: Mapping[str, Any]) -> None:
        """A training step was logged."""
        task = self.current[arm, seed]
        self.progress.update(task, completed=line["step"], note=step_note(line))
        if line["step"] % 40 == 0:
            self._say(
                f"  {arm}, seed {seed}, step {line['step']}: {step_note(line)} "
                f"({line['seconds']:.0f} s)"
            )

    def done(self, arm: str, seed: int, metrics: Mapping[str, Estimate]) -> None:
        """A run was evaluated."""
        name = arm if arm == "seed" else f"{arm} {seed}"
        self.results[name] = {k: {"mean": v.mean} for k, v in metrics.items()}
        if (arm, seed) in self.current:
            self.progress.remove_task(self.current.pop((arm, seed)))
            self.progress.advance(self.overall)
        said = ", ".join(f"{label} {number(metrics[m].mean)}" for m, label in SHOWN if m in metrics)
        self._say(f"{name}: {said}")
        self._refresh()
