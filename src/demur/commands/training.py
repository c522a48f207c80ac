"""Commands that train: a study of several arms, one run, the seed model."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.commands.skills import learn
from demur.errors import ConfigError
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
    Track,
    checked_device,
    overrides,
    use_threads,
)

if TYPE_CHECKING:
    from demur.recipe import Recipe
    from demur.schema import Trainable


class Where(StrEnum):
    """Where a model learns."""

    local = "local"
    tinker = "tinker"


def study(
    out: Out = Path("study"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Seed model, majority and demur, one seed, minutes.")
    ] = False,
    arms: Annotated[
        str | None,
        typer.Option(
            "--arms",
            help="Comma-separated recipes (see demur recipes), each with settings if you like, as "
            "demur@learner.steps=80; default: the eight of the study.",
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
    track: Track = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train several arms from one model, measure them alike, and give a verdict.

    [dim]demur study --quick --out demo[/dim]
    [dim]demur study --arms majority,demur --seeds 3 --out study[/dim]
    [dim]demur study --arms demur,demur@anchor.reliability=0.8 --out noisy[/dim]
    """
    from demur import console
    from demur.policies.folder import model_folder
    from demur.report import write_markdown, write_report
    from demur.study import ARMS, QUICK_ARMS, StudyConfig, recipe_for, run_study
    from demur.supplies import check_judges
    from demur.trackers import check_trackers

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
        track=check_trackers(track or ()),
    )
    for arm in config.arms:
        check_judges(recipe_for(arm, config))  # every mistake shows before any work
    folder = model_folder(model)
    use_threads()
    started = time.perf_counter()
    with console.StudyDisplay(runs, quiet=quiet) as display:
        result = run_study(config, folder, out, display, resume=resume)
        display.phase("writing the report")
        page = write_report([out])
        write_markdown(out)
    console.out.print(console.results_table(result["arms"], result["baselines"], "Results"))
    console.out.print(console.verdict_table(result["verdict"]["criteria"]))
    for sentence in result["verdict"]["sentences"]:
        console.out.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.out.print(f"{time.perf_counter() - started:.0f} s in this sitting", highlight=False)
    console.out.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (see demur recipes) or .toml file.")
    ],
    out: Out,
    model: Model = "seed",
    endpoint: Annotated[
        str,
        typer.Option(
            "--endpoint",
            help="Address of an OpenAI-compatible server that holds the model: for recipes of "
            "skills, which change no weights.",
        ),
    ] = "",
    policy_: Annotated[
        Where,
        typer.Option(
            "--policy",
            help="Where the model learns: [cyan]local[/cyan], in this process, or "
            "[cyan]tinker[/cyan], as an adapter on an engine at --base-url.",
        ),
    ] = Where.local,
    base_url: Annotated[
        str,
        typer.Option(
            "--base-url",
            help="Address of an engine that speaks the Tinker protocol; its key, if it wants one, "
            "is read from TINKER_API_KEY.",
        ),
    ] = "",
    device: Device = "auto",
    tasks: TaskFile = None,
    question: QuestionColumn = "question",
    answer: AnswerColumn = "answer",
    grader: Grader = None,
    seed: Seed = 0,
    set_: Sets = None,
    stop_on: StopOn = None,
    track: Track = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train one model with one recipe; the last checkpoint is a Hugging Face folder.

    [dim]demur train demur --out runs/demur[/dim]
    [dim]demur train majority --model ./my-model --tasks train.jsonl --out runs/mine[/dim]

    The same recipes train an adapter on an engine elsewhere (the Tinker service, or SkyRL):

    [dim]demur train demur --policy tinker --base-url http://127.0.0.1:8000 --model NAME
    --out runs/far[/dim]

    A recipe of skills changes no weights and writes down what it learns:

    [dim]demur train ctx2skill --endpoint http://127.0.0.1:8000/v1 --model NAME
    --set skills.context=handbook.md --out runs/skills[/dim]
    """
    import numpy as np

    from demur import console
    from demur.config import apply_overrides, check_recipe, read_recipe
    from demur.pool import task_pool
    from demur.report import write_report
    from demur.runlog import RunFolder
    from demur.supplies import check_judges
    from demur.trackers import check_trackers, tracked
    from demur.train import train as run_training

    trackers = check_trackers(track or ())
    data, where = read_recipe(recipe)
    if tasks is not None:
        file = {"path": str(tasks), "question": question, "answer": answer}
        table = data.get("tasks", {})
        if isinstance(table, dict):
            file |= {"grader": grader} if grader else {}
            data = {**data, "tasks": {**table, "file": file}}
    resolved = check_recipe(apply_overrides(data, overrides(set_, stop_on)), where)
    if resolved.skills is not None:
        if tasks is not None:
            raise ConfigError(
                "skills are learned from a text: name it with --set skills.context=FILE, and a "
                "file of questions that measures them with --set skills.exam=FILE"
            )
        use_threads()
        learn(
            resolved,
            out,
            model=model,
            endpoint=endpoint,
            device=checked_device(device),
            seed=seed,
            resume=resume,
            quiet=quiet,
            track=trackers,
        )
        return
    if endpoint:
        raise ConfigError(
            f"the recipe {resolved.name} changes weights, and a server's cannot be reached: give "
            "--model a folder, or take a recipe of skills (ctx2skill)"
        )
    if resolved.tasks.file is not None:  # a bad file shows before a folder is made
        task_pool(resolved.tasks, np.random.default_rng(0))
    check_judges(resolved)
    use_threads()
    settings = {"model": model, "seed": seed, "recipe": resolved.model_dump()}
    if policy_ is Where.tinker:
        settings["policy"] = policy_.value
    policy = _policy(resolved, policy_, base_url, model, checked_device(device), seed, quiet)
    run = RunFolder(out, settings, resume=resume)
    steps = sum(stage.steps for stage in resolved.stages)
    title = out.resolve().name
    with tracked(run, trackers, title) as tracking, console.bar(quiet=quiet) as progress:
        task = progress.add_task(resolved.name, total=steps, note="private samples first")

        def watch(line: dict[str, object]) -> None:
            progress.update(task, completed=float(str(line["step"])), note=console.step_note(line))

        at = run_training(resolved, policy, run, seed=seed, watch=watch)
        seen = tracking.where
    last = run.latest_checkpoint()
    page = write_report([out])
    if at.stopped:
        console.out.print(f"Ended early by the alarm {at.stopped}.", highlight=False)
    console.out.print(
        f"{at.total} steps in {at.seconds:.0f} s, anchor budget {at.budget}", highlight=False
    )
    if last is not None:
        console.out.print(f"Model:  {last.path}", highlight=False, markup=False, soft_wrap=True)
    for name, where in seen.items():
        console.out.print(f"{name}: {where}", highlight=False, markup=False, soft_wrap=True)
    console.out.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)


def _policy(
    recipe: Recipe, where: Where, base_url: str, model: str, device: str, seed: int, quiet: bool
) -> Trainable:
    """The model that learns, here or on an engine, before a folder is made."""
    from demur.engine.adapter import NO_TOKEN
    from demur.policies.folder import model_folder
    from demur.policies.local import LocalPolicy

    if where is Where.local:
        if base_url:
            raise ConfigError("--base-url is an engine's address: add --policy tinker")
        engine = recipe.engine.on(device)
        here = LocalPolicy.from_folder(model_folder(model), engine=engine)
        if recipe.lora is not None and recipe.assesses and here.post_id is None:
            raise ConfigError(NO_TOKEN)
        return here
    from demur import console
    from demur.policies.connection import Connection
    from demur.policies.tinker import TinkerPolicy
    from demur.remote import check_remote

    if not base_url:
        raise ConfigError("--policy tinker needs the engine's address: add --base-url URL")
    check_remote(recipe)
    link = Connection(base_url, recipe.remote.patience)
    name = str(model_folder(model)) if model == "seed" else model
    engine = recipe.engine.on(device)
    policy = TinkerPolicy(link, name, seed=seed, remote=recipe.remote, engine=engine)
    policy.adapt(recipe.lora.rank if recipe.lora else policy.rank, seed=seed)
    notes = [
        f"An adapter of rank {policy.rank} on {policy.model} is trained at {link.url}; the whole "
        "model can be trained with --policy local."
    ]
    if link.skyrl and recipe.remote.reduction == "auto":
        notes.append(
            "SkyRL is taken for its JAX backend, which takes means over tokens; for one that adds "
            "them up (FSDP, Megatron) add --set remote.reduction=sum."
        )
    for note in () if quiet else notes:
        console.err.print(note, highlight=False, markup=False, soft_wrap=True)
    if recipe.assesses:
        policy.learn_post_completion()
    return policy


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
