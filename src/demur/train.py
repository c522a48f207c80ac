"""Training, top to bottom: this is the page to read first.

    source.draw -> game(policy) -> Episodes -> judge_round -> Verdicts -> till.pay -> Rewards
                        policy.update <- Samples <- advantages per group and span

A recipe is one stage or several. ``distil`` learns what private deliberation concluded; ``offline``
plays once and learns from what an anchor kept; each step of ``policy_gradient`` plays a batch of
groups, has the anchor judge them, pays the verdicts and takes one update a pass. Every step seeds
its own generator from (run seed, stage, step), so a run that was stopped and resumed is the run
that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from demur.alarms import Alarms
from demur.anchors import judge_round
from demur.anchors.past_version import PastVersion
from demur.games import Opposed, SelfAsking, make_game
from demur.learners import policy_gradient
from demur.learners.imitate import imitations
from demur.learners.samples import make_samples
from demur.meters import batch_stats
from demur.offline import offline
from demur.pool import claim_settings, task_pool
from demur.recipe import Distil, Offline, PolicyGradient, Recipe
from demur.rounds import Round, in_waves
from demur.runlog import RunFolder
from demur.schema import Sample, Stats, Trainable
from demur.stages import (
    Memory,
    Progress,
    Take,
    Till,
    distil,
    heap_at_rest,
    private_states,
    sampling_for,
)
from demur.supplies import anchor_for, check_judges
from demur.tasks.source import Source
from demur.world.questions import held_out, recognise

Watch = Callable[[dict[str, Any]], None]


@heap_at_rest()
def train(
    recipe: Recipe,
    policy: Trainable,
    run: RunFolder,
    *,
    seed: int = 0,
    watch: Watch = lambda _: None,
    probe: Callable[[Any], Stats] | None = None,
) -> Progress:
    """Run every stage of a recipe from the policy as it is, or on from the run's last checkpoint.

    ``watch`` sees each logged step; ``probe`` measures the policy every ``probe_every`` steps and
    at the end, and its figures are logged as ``dev/NAME``. Raises ``TrainingError`` where training
    cannot go on; the last good checkpoint is kept.
    """
    started = time.perf_counter()
    check_judges(recipe)
    if recipe.lora is not None:
        low = recipe.lora
        policy.adapt(low.rank, low.alpha, low.targets, seed)
    if recipe.assesses:
        policy.learn_post_completion()
    tasks = task_pool(recipe.tasks, np.random.default_rng([seed, 0]))
    private = private_states(recipe, policy, tasks, run, seed)
    source = Source(tasks, claim_settings(recipe.tasks), private)
    at, saved = Progress(), run.rewind()
    if saved is not None:
        at = Progress.load(saved.path, policy)
        policy.load(saved.path)
    started -= at.seconds
    for number in range(at.stage, 0 if at.stopped else len(recipe.stages)):
        stage = recipe.stages[number]
        policy.optimise(
            stage.learning_rate,
            warmup=round(stage.warmup * stage.steps),
            decay=stage.steps if stage.decay else 0,
            max_grad_norm=stage.max_grad_norm,
        )
        if saved is not None and at.step:
            policy.load_optimiser(saved.path)
        rng = np.random.default_rng([seed, 1, number])
        if isinstance(stage, Distil):
            take = distil(stage, policy, source, at, rng)
        elif isinstance(stage, Offline):
            take = offline(stage, policy, source, at, rng, run)
        else:
            alarms = Alarms(recipe.name, stop_on=recipe.stop_on)
            take = reinforce(stage, policy, source, at, rng, alarms)
        for step in range(at.step, stage.steps):
            stats = take(step, np.random.default_rng([seed, 2, number, step]))
            at.step, at.total, at.seconds = step + 1, at.total + 1, time.perf_counter() - started
            line = {"step": at.total, "stage": stage.kind, "seconds": at.seconds, **stats}
            if probe is not None and (at.total % recipe.probe_every == 0 or at.step == stage.steps):
                line |= {f"dev/{name}": value for name, value in probe(policy).items()}
            run.log(line)
            watch(line)
            if at.stopped:
                _checkpoint(run, policy, at)
                return at
            if at.step < stage.steps and at.total % recipe.checkpoint_every == 0:
                _checkpoint(run, policy, at)
        at.stage, at.step, at.parts, at.opponents = number + 1, 0, dict, []
        at.past = None
        _checkpoint(run, policy, at)
    return at


def _checkpoint(run: RunFolder, policy: Trainable, at: Progress) -> None:
    def write(folder: Path) -> None:
        policy.save(folder)
        at.save(folder)

    run.checkpoint(at.total, write)


def reinforce(
    stage: PolicyGradient,
    policy: Trainable,
    source: Source,
    at: Progress,
    rng: np.random.Generator,
    alarms: Alarms,
    lap: Callable[[str], None] = lambda part: None,
) -> Take:
    """Play, judge, pay, update. ``lap`` is told which part of a step has just ended."""
    game = make_game(stage.game, stage.game_options, recognise=recognise, kept=held_out)
    if stage.anchor == PastVersion.name and at.past is None:
        at.past = policy.snapshot()
    anchor = anchor_for(stage, policy, source, rng, at.past)
    memory = Memory(anchor, game, at, alarms)
    if at.step:
        memory.restore(at.parts())
    at.parts = memory.state
    before = at.budget - (anchor.budget if at.step else 0)
    till = Till(stage)
    loss = policy_gradient.PolicyGradient(
        clip=stage.clip,
        kl=stage.kl,
        normalise=stage.normalise,
        entropy_floor=stage.entropy_floor,
        temperature=stage.temperature,
    )
    if loss.needs_reference and not at.step:  # a resumed stage has read its reference back
        policy.keep_reference()

    def take(step: int, rng: np.random.Generator) -> Stats:
        if isinstance(game, Opposed) and step % game.remember == 0:
            game.meet(policy.snapshot())
        if isinstance(game, SelfAsking):
            draws = game.draws(stage.prompts)
        else:
            draws = source.draw(stage.prompts, rng, alone=stage.alone_share)
        lap("draw")
        played, samples = Round(), list[Sample]()
        for groups, last in in_waves(game, policy, draws, stage.group, sampling_for(stage, rng)):
            lap("read")
            verdicts = judge_round(anchor, groups)
            lap("judge")
            rewards = till.pay(groups, verdicts)
            lap("pay")
            learned = make_samples(
                *till.learned_from(groups, verdicts, rewards, step),
                pieces=policy.pieces,
                baseline=stage.advantage,
                baselines={name: seat.advantage for name, seat in stage.seats.items()},
                means=memory.means,
                level_ids=policy.level_ids,
                score_weight=stage.expected_score,
                losses=till.losses,
            )
            learned += imitations(groups, verdicts, policy, stage.imitate, stage.imitate_assessment)
            lap("pack")
            if played.groups:  # groups of a later wave are counted on
                first = len(played.groups)
                learned = [replace(s, group=first + s.group) for s in learned]
            if not last:
                policy.feed(learned, loss)
            played.add(groups, verdicts, rewards)
            samples += learned
        stats: Stats = {}
        for _ in range(stage.epochs):
            stats = policy.update(samples, loss)
        if isinstance(anchor, PastVersion) and at.past is not None and anchor.average:
            at.past.follow(policy, 1.0 - anchor.average)
        lap("update")
        stats |= batch_stats(played.groups, played.verdicts, played.rewards)
        stats |= memory.votes(played.groups, played.verdicts)
        stats |= memory.alarms(stats)
        lap("meters")
        at.budget, at.stopped = before + anchor.budget, memory.alarms.stop
        return stats | {"anchor_budget": at.budget}

    return take
