"""Commands that look: at a model, at folders of figures, at recipes, at the engine's speed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from demur.commands.market import evaluate_market
from demur.errors import ConfigError, UnknownName
from demur.flags import (
    AnswerColumn,
    Device,
    Grader,
    Out,
    QuestionColumn,
    Quiet,
    Resume,
    Seed,
    TaskFile,
    checked_device,
    use_threads,
)

MARKET = "market"
LONGEST_SALE = 32


def evaluate(
    out: Out,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Hugging Face folder; seed, the built-in model; or with --endpoint the model's "
            "name on that server."
        ),
    ] = None,
    named: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The same, as an option.")
    ] = None,
    device: Device = "auto",
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="world (the default), file (with --tasks), gsm8k, benchform: claims to take or to "
            "leave. market: a seller who knows, and what it says of it.",
        ),
    ] = None,
    tasks: TaskFile = None,
    question: QuestionColumn = "question",
    answer: AnswerColumn = "answer",
    choices: Annotated[
        str | None,
        typer.Option("--choices", help="Its column of options, where it is a multiple choice."),
    ] = None,
    grader: Grader = None,
    endpoint: Annotated[
        str,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="An OpenAI-compatible server, as http://127.0.0.1:8000/v1; its key comes from "
            "OPENAI_API_KEY. A stopped run goes on with --resume and asks nothing twice.",
        ),
    ] = "",
    style: Annotated[
        str,
        typer.Option(
            "--style",
            help="How tasks of the world are put: brief (its own language), plain, or auto.",
        ),
    ] = "auto",
    smoke: Annotated[
        bool, typer.Option("--smoke", help="50 tasks and three turns: a first look.")
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL",
            help="market: who tells the form of a seller's words, where they are not the embedded "
            "world's; its agreement with known forms is measured first.",
        ),
    ] = None,
    judge_endpoint: Annotated[
        str, typer.Option("--judge-endpoint", help="market: the server of the judge.")
    ] = "",
    judge_style: Annotated[
        str,
        typer.Option("--judge-style", help="market: plain, or brief for a judge taught no rubric."),
    ] = "plain",
    n: Annotated[
        int | None,
        typer.Option(
            "--n", help="Tasks (of each family of the world), 250; market: offers, 900.", min=1
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", help="Longest reply: 32 in the world's brief language, else 512.", min=1
        ),
    ] = None,
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
            help="Another setting, as in [cyan]--set k=16[/cyan] (claim-free samples a task): "
            "turns, user_claims, third_claims, peer_claims, own_claims, supported_claims, "
            "disclosed; of a server concurrency, timeout, prompt_price and completion_price (USD "
            "per million tokens); repeatable.",
        ),
    ] = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Measure when a model disagrees, and how sure it is, beside the scripted baselines.

    [dim]demur evaluate runs/demur/checkpoints/step-270 --out eval[/dim]
    [dim]demur evaluate ./my-model --tasks test.jsonl --out eval[/dim]
    [dim]demur evaluate my-model --endpoint http://127.0.0.1:8000/v1 --smoke --out eval[/dim]
    [dim]demur evaluate ./my-model --tasks arc.parquet --choices choices --answer answerKey --out e
    [/dim]
    [dim]demur evaluate ./my-model --suite benchform --tasks benchform/ --out eval[/dim]
    [dim]demur evaluate runs/demur/checkpoints/step-270 --objector seed --out eval[/dim]
    [dim]demur evaluate seed --suite market --out candour[/dim]
    """
    from demur import console
    from demur.evaluation import run_evaluation
    from demur.policies.folder import model_folder
    from demur.report import write_report
    from demur.suites import SUITES, EvaluateConfig

    if (model is None) == (named is None):
        raise ConfigError("name one model: a folder, seed, or with --endpoint its name there")
    model = model or named or ""
    chosen = suite or ("world" if tasks is None else "file")
    if chosen not in (*SUITES, MARKET):
        raise UnknownName("suite", chosen, (*SUITES, MARKET))
    if chosen == MARKET:
        use_threads()
        evaluate_market(
            model,
            out,
            endpoint=endpoint,
            judge=judge or "",
            judge_endpoint=judge_endpoint,
            judge_style=judge_style,
            n=n,
            max_tokens=max_tokens or LONGEST_SALE,
            device=checked_device(device),
            seed=seed,
            resume=resume,
            quiet=quiet,
        )
        return
    if judge or judge_endpoint:
        raise ConfigError("--judge is for --suite market; add it, or leave the judge out")
    given = {
        "suite": chosen, "model": model, "endpoint": endpoint, "style": style,
        "tasks": None if tasks is None else str(tasks), "question": question, "answer": answer,
        "choices": choices, "grader": grader, "smoke": smoke, "max_tokens": max_tokens,
        "seed": seed, "objectors": tuple(str(model_folder(path)) for path in objector or ()),
    }  # fmt: skip
    config = EvaluateConfig.checked(given | ({} if n is None else {"n": n})).override(set_ or ())
    use_threads()
    folder = None if endpoint else model_folder(model)
    with console.spinner("loading", quiet=quiet) as say:
        result = run_evaluation(
            config, folder, out, say, device=checked_device(device), resume=resume
        )
    page = write_report([out])
    console.show_results(result, page, _bill(result.get("usage")))


def _bill(usage: Mapping[str, Any] | None) -> list[str]:
    """What the answers of a server came to."""
    if usage is None:
        return []
    price = "" if usage["usd"] is None else f", {usage['usd']:.2f} USD"
    return [
        f"{usage['answers']:,} answers ({usage['asked_now']:,} asked for now, {usage['lost']:,} "
        f"lost), {usage['prompt_tokens']:,} tokens read and {usage['completion_tokens']:,} "
        f"written{price}."
    ]


def report(
    folders: Annotated[list[Path], typer.Argument(help="Study, run or evaluation folders.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file or folder to write.")] = None,
) -> None:
    """Make one self-contained HTML page of run folders; several are compared.

    [dim]demur report study[/dim]
    [dim]demur report runs/before runs/after --out compare.html[/dim]
    """
    from demur.report import write_report

    typer.echo(f"Report: {write_report(folders, out)}")


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


def bench(
    out: Out,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="sampling, update, step, share, growth, memory or loop; repeatable. Default: all.",
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
    exponent of time, for loop the replies/s that a step's scoring and packing keeps up with, beside
    an aim of 50,000. Memory takes a fresh process a side. Let nothing else run meanwhile. Whole
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
