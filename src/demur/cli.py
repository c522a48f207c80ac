"""The command line: one command a verb, each as thin as it can be.

    demur study       arms x seeds from one seed model, with a verdict
    demur train       one recipe on one model
    demur evaluate    one model on a suite of exchanges
    demur report      run folders -> one HTML page
    demur recipes     what can be trained, or one recipe in full
    demur pretrain    the seed model, from nothing
    demur bench       the engine against what people use, side by side

Exit codes: 0; 2 for a mistake that the message says how to mend; 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from demur import __version__
from demur.errors import DemurError
from demur.flags import (
    AnswerColumn,
    Device,
    Grader,
    Model,
    Out,
    QuestionColumn,
    Quiet,
    Resume,
    Seed,
    Sets,
    StopOn,
    TaskFile,
    checked_device,
    overrides,
    use_threads,
)
from demur.runlog import explain_os_error, system_error

STOPPED = 130

app = typer.Typer(
    name="demur",
    help="Train and measure language models on when to disagree, and how sure to be.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"demur {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Train and measure language models on when to disagree, and how sure to be."""


@app.command()
def study(
    out: Out = Path("study"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Seed model, majority and demur, one seed, minutes.")
    ] = False,
    arms: Annotated[
        str | None,
        typer.Option(
            "--arms",
            help="Comma-separated recipes (see demur recipes); default: the eight of the study.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Seeds an arm (default 3; quick: 1).", min=1)
    ] = None,
    tasks: Annotated[
        int | None, typer.Option("--tasks", help="Evaluated tasks a family.", min=4)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Runs side by side (default: one a core; quick: 1).", min=1),
    ] = None,
    model: Model = "seed",
    device: Device = "auto",
    seed: Seed = 0,
    set_: Sets = None,
    stop_on: StopOn = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train several arms from one model, measure them alike, and give a verdict.

    [dim]demur study --quick --out demo[/dim]
    [dim]demur study --arms majority,demur --seeds 3 --out study[/dim]
    """
    from demur import console
    from demur.policies.folder import model_folder
    from demur.report import write_markdown
    from demur.study import ARMS, QUICK_ARMS, StudyConfig, recipe_for, run_study

    named = tuple(dict.fromkeys(a.strip() for a in (arms or "").split(",") if a.strip()))
    chosen = named or (QUICK_ARMS if quick else ARMS)
    runs = len(chosen) * (seeds or (1 if quick else 3))
    cores = os.cpu_count() or 1
    side_by_side = min(workers or (1 if quick else cores), runs)
    config = StudyConfig(
        arms=chosen,
        seeds=seeds or (1 if quick else 3),
        quick=quick,
        tasks=tasks or StudyConfig.tasks,
        overrides=tuple(overrides(set_, stop_on)),
        first_seed=seed,
        workers=side_by_side,
        threads=max(1, cores // side_by_side),
        device=checked_device(device),
    )
    for arm in config.arms:
        recipe_for(arm, config)  # every mistake shows before any work
    folder = model_folder(model)
    use_threads()
    started = time.perf_counter()
    with console.StudyDisplay(runs, quiet=quiet) as display:
        result = run_study(config, folder, out, display, resume=resume)
        display.phase("writing the report")
        page = _report([out], None)
        write_markdown(out)
    console.out.print(console.results_table(result["arms"], result["baselines"], "Results"))
    console.out.print(console.verdict_table(result["verdict"]["criteria"]))
    for sentence in result["verdict"]["sentences"]:
        console.out.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.out.print(f"{time.perf_counter() - started:.0f} s in this sitting", highlight=False)
    console.out.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (see demur recipes) or .toml file.")
    ],
    out: Out,
    model: Model = "seed",
    device: Device = "auto",
    tasks: TaskFile = None,
    question: QuestionColumn = "question",
    answer: AnswerColumn = "answer",
    grader: Grader = None,
    seed: Seed = 0,
    set_: Sets = None,
    stop_on: StopOn = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train one model with one recipe; the last checkpoint is a Hugging Face folder.

    [dim]demur train demur --out runs/demur[/dim]
    [dim]demur train majority --model ./my-model --tasks train.jsonl --out runs/mine[/dim]
    """
    import numpy as np

    from demur import console
    from demur.config import apply_overrides, check_recipe, read_recipe
    from demur.policies.folder import model_folder
    from demur.policies.local import LocalPolicy
    from demur.pool import task_pool
    from demur.runlog import RunFolder
    from demur.train import train as run_training

    data, where = read_recipe(recipe)
    if tasks is not None:
        file = {"path": str(tasks), "question": question, "answer": answer}
        table = data.get("tasks", {})
        if isinstance(table, dict):
            file |= {"grader": grader} if grader else {}
            data = {**data, "tasks": {**table, "file": file}}
    resolved = check_recipe(apply_overrides(data, overrides(set_, stop_on)), where)
    if resolved.tasks.file is not None:  # a bad file shows before a folder is made
        task_pool(resolved.tasks, np.random.default_rng(0))
    use_threads()
    engine = resolved.engine.on(checked_device(device))
    policy = LocalPolicy.from_folder(model_folder(model), engine=engine)
    settings = {"model": model, "seed": seed, "recipe": resolved.model_dump()}
    run = RunFolder(out, settings, resume=resume)
    steps = sum(stage.steps for stage in resolved.stages)
    with console.bar(quiet=quiet) as progress:
        task = progress.add_task(resolved.name, total=steps, note="private samples first")

        def watch(line: dict[str, object]) -> None:
            progress.update(task, completed=float(str(line["step"])), note=console.step_note(line))

        at = run_training(resolved, policy, run, seed=seed, watch=watch)
    last = run.latest_checkpoint()
    page = _report([out], None)
    if at.stopped:
        console.out.print(f"Ended early by the alarm {at.stopped}.", highlight=False)
    console.out.print(
        f"{at.total} steps in {at.seconds:.0f} s, anchor budget {at.budget}", highlight=False
    )
    if last is not None:
        console.out.print(f"Model:  {last.path}", highlight=False, markup=False, soft_wrap=True)
    console.out.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Hugging Face folder, or seed, the built-in model.")],
    out: Out,
    device: Device = "auto",
    tasks: TaskFile = None,
    question: QuestionColumn = "question",
    answer: AnswerColumn = "answer",
    grader: Grader = None,
    n: Annotated[
        int, typer.Option("--n", help="Tasks (of each family of the world).", min=1)
    ] = 250,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest reply.", min=1)] = 32,
    seed: Seed = 0,
    objector: Annotated[
        list[str] | None,
        typer.Option(
            "--objector",
            metavar="MODEL",
            help="A model folder, or seed, that argues on the same tasks; repeatable.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another setting, as in [cyan]--set k=16[/cyan] (claim-free samples a task), "
            "user_claims, peer_claims or disclosed; repeatable.",
        ),
    ] = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Measure when a model disagrees, and how sure it is, beside the scripted baselines.

    [dim]demur evaluate runs/demur/checkpoints/step-270 --out eval[/dim]
    [dim]demur evaluate ./my-model --tasks test.jsonl --max-tokens 400 --out eval[/dim]
    [dim]demur evaluate runs/demur/checkpoints/step-270 --objector seed --out eval[/dim]
    """
    from demur import console
    from demur.policies.folder import model_folder
    from demur.suites import EvaluateConfig, run_evaluation

    config = EvaluateConfig(
        model=model,
        tasks=None if tasks is None else str(tasks),
        question=question,
        answer=answer,
        grader=grader,
        n=n,
        max_tokens=max_tokens,
        seed=seed,
        objectors=tuple(str(model_folder(path)) for path in objector or ()),
    ).override(set_ or ())
    use_threads()
    with console.spinner("loading", quiet=quiet) as say:
        result = run_evaluation(
            config, model_folder(model), out, say, device=checked_device(device), resume=resume
        )
    page = _report([out], None)
    console.out.print(console.results_table(result["arms"], result["baselines"], "Results"))
    for sentence in result["verdict"]["sentences"]:
        console.out.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.out.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Study, run or evaluation folders.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file or folder to write.")] = None,
) -> None:
    """Make one self-contained HTML page of run folders; several are compared.

    [dim]demur report study[/dim]
    [dim]demur report runs/before runs/after --out compare.html[/dim]
    """
    typer.echo(f"Report: {_report(folders, out)}")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe in full.")] = None,
) -> None:
    """List the recipes that come with demur, or show one with every default filled in.

    [dim]demur recipes[/dim]
    [dim]demur recipes demur > mine.toml[/dim]
    """
    from rich.markup import escape
    from rich.table import Table

    from demur import console
    from demur.config import load_recipe, recipe_names, to_toml

    if name is not None:
        typer.echo(to_toml(load_recipe(name)), nl=False)
        return
    table = Table("recipe", "what it does", "source")
    for each in recipe_names():
        recipe = load_recipe(each)
        table.add_row(each, escape(recipe.description), escape(recipe.source))
    console.out.print(table)


@app.command()
def pretrain(
    out: Out,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Optimiser steps; default: the recipe's.", min=1)
    ] = None,
    seed: Seed = 0,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Make the seed model from the embedded world's text: about 40 minutes on 2 cores.

    [dim]demur pretrain --out my-seed[/dim]
    [dim]demur pretrain --out my-seed --resume[/dim]
    """
    from demur import console
    from demur.card import write_card
    from demur.world.seed import make_seed

    use_threads()
    with console.bar(quiet=quiet) as progress:
        task = progress.add_task("pretrain", total=None, note="")

        def watch(line: dict[str, float]) -> None:
            progress.update(
                task, total=line["of"], completed=line["step"], note=f"loss {line['loss']:.3f}"
            )

        make_seed(out, steps=steps, seed=seed, resume=resume, watch=watch)
    with console.spinner("measuring the model for its card", quiet=quiet):
        card = write_card(out)
    for key, value in card.items():
        console.out.print(f"{key:34} {value:.3f}", highlight=False)
    console.out.print(f"Model:  {out}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def bench(
    out: Out,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="sampling, update, step, share, growth or memory; repeatable. Default: all.",
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            "--size",
            help="1M, 3M, 9M, 30M, 100M or 500M; repeatable. Default: 1M and 9M; on a GPU 100M "
            "and 500M.",
        ),
    ] = None,
    device: Device = "auto",
    repeats: Annotated[
        int, typer.Option("--repeats", help="Timed runs a side, of which the median counts.", min=1)
    ] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="The first case of each measure and size only.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    r"""Measure the engine beside what people use, on random weights: about half an hour on 2 cores.

    Both sides run in turn on the same weights, prompts and lengths. A ratio above 1 says that demur
    is better; for share it is the part of the machine's speed that an update uses, for growth the
    exponent of time. Memory takes a fresh process a side. Let nothing else run meanwhile. Whole
    steps run beside TRL: [dim]pip install 'demur\[bench]'[/dim].

    [dim]demur bench --out bench[/dim]
    [dim]demur bench --measure update --size 9M --out bench-update[/dim]
    """
    from demur import console
    from demur.bench import run_bench, write_bench

    use_threads()
    with console.bar(quiet=quiet) as progress:
        task = progress.add_task("bench", total=None, note="")

        def watch(done: int, total: int, note: str) -> None:
            progress.update(task, completed=done, total=total, note=note)

        found = run_bench(
            measure,
            size,
            repeats=repeats,
            quick=quick,
            device=checked_device(device),
            watch=watch,
            keep=lambda so_far: write_bench(out, so_far),
        )
    console.out.print(console.bench_table(found["rows"]))
    console.out.print(f"Figures: {out / 'bench.json'}", highlight=False, markup=False)
    console.out.print(f"Plots:   {out / 'bench.html'}", highlight=False, markup=False)


def _report(folders: list[Path], out: Path | None) -> Path:
    from demur.report import write_report

    return write_report(folders, out)


def main() -> None:
    """Run the command line; turn mistakes into one sentence and an exit code."""
    try:
        code = app(standalone_mode=False)  # an exit that was asked for comes back as its code
    except typer.TyperException as error:
        _complain(_mistyped(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    except DemurError as error:
        _complain(str(error), 2)
    except Exception as error:
        cause = system_error(error)
        if cause is None:
            raise
        _complain(explain_os_error(cause), 2)
    if code == STOPPED:
        _complain("stopped; nothing is lost but the step in hand: --resume goes on", STOPPED)
    if code:
        raise SystemExit(code)


def _mistyped(error: typer.TyperException) -> str:
    """What typer says of a mistaken command line, as one sentence."""
    said = " ".join(error.format_message().split()).rstrip(".")
    if not said:  # no command at all: the help was shown
        return "name a command"
    return f"{said[0].lower()}{said[1:]}; see demur --help"


def _complain(sentence: str, code: int) -> NoReturn:
    print(f"demur: {sentence}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
