"""What the stages of a run share: where it stands, and the stage that needs no play.

``distil`` learns what private deliberation concludes; ``train`` holds the loop and the stage that
plays, for which ``Till`` pays every seat by its own rewards and ``Memory`` keeps what a resumed run
has to find again.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from demur.alarms import Alarms
from demur.anchors import Anchor
from demur.anchors.own_confidence import OwnConfidence
from demur.baselines import calibrate_shares
from demur.errors import RunFolderError
from demur.games import RESPONDER, Game, Opposed, Remembering
from demur.games.private import Private, deliberate, private_of
from demur.learners import policy_gradient
from demur.learners.advantage import RunningMeans
from demur.learners.distil import demonstrations
from demur.learners.samples import Losses
from demur.measure.shares import IDENTITY, ShareTable
from demur.recipe import Distil, Offline, PolicyGradient, Recipe
from demur.rewards import make_parts, score
from demur.runlog import RunFolder
from demur.schema import Group, Policy, Reward, Sampling, Stats, Task, Trainable, Verdict
from demur.tasks.source import Source
from demur.votes import VoteMeter

PROGRESS, OPPONENTS, PAST, PRIVATE = "progress.json", "opponents", "past", "private.parquet"
Take = Callable[[int, np.random.Generator], Stats]


@contextmanager
def heap_at_rest() -> Iterator[None]:
    """Spare the garbage collector what was there before: libraries and models that stay anyway.

    A step makes objects by the ten thousand, and for every few of its rounds the collector would
    walk through all of them: four fifths of the time that reading replies takes.
    """
    nested = gc.get_freeze_count() > 0
    if not nested:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if not nested:
            gc.unfreeze()


@dataclass
class Progress:
    """Where a run stands: its stage and next step, and what its anchors have used up so far.

    ``parts`` gives what the stage's anchor, game and meters have to remember, ``opponents`` are the
    past versions that it plays against, ``past`` the one that judges. ``stopped`` names the alarm
    that ended the run.
    """

    stage: int = 0
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    budget: int = 0
    parts: Callable[[], dict[str, Any]] = dict
    stopped: str = ""
    opponents: list[Policy] = field(default_factory=list)
    past: Any = None

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        models = ("opponents", "past")
        said = {k: v for k, v in vars(self).items() if k not in models} | {"parts": self.parts()}
        (folder / PROGRESS).write_text(json.dumps(said))
        for number, past in enumerate(self.opponents):
            if isinstance(past, Trainable):
                past.save(folder / OPPONENTS / f"{number:03d}")
        if self.past is not None:
            self.past.save(folder / PAST)

    @classmethod
    def load(cls, folder: Path, policy: Trainable) -> Progress:
        """Read it back; the policy recalls its own past."""
        said = json.loads((folder / PROGRESS).read_text())
        parts = said.pop("parts")
        at = cls(**said, parts=lambda: parts)
        past = sorted((folder / OPPONENTS).glob("*"))
        at.opponents = [policy.recall(p, f"past-{p.name}") for p in past]
        if (folder / PAST).exists():
            at.past = policy.recall(folder / PAST, PAST)
        return at


def label_shares(source: Source, labels: int, rng: np.random.Generator) -> ShareTable:
    """Look up the truth of ``labels`` tasks of the pool and calibrate private shares on them."""
    if not labels:
        return IDENTITY
    known = [p for p in source.private.values() if p.task.truth is not None]
    chosen = rng.permutation(len(known))[:labels]
    return calibrate_shares([known[int(i)] for i in chosen])


def distil(
    stage: Distil, policy: Trainable, source: Source, at: Progress, rng: np.random.Generator
) -> Take:
    """Supervised steps on what private deliberation concludes; the only anchor is ``labels``."""
    shares = label_shares(source, stage.labels, rng)
    before = at.budget if at.step else at.budget + min(stage.labels, len(source.private))

    def take(step: int, rng: np.random.Generator) -> Stats:
        draws = source.draw(stage.batch, rng, alone=stage.alone_share)
        samples = demonstrations(
            draws,
            source.private,
            shares,
            policy,
            rng,
            score_weight=stage.expected_score,
            thought_from=stage.thought_from,
        )
        at.budget = before
        return policy.update(samples, policy_gradient.Supervised()) | {"anchor_budget": at.budget}

    return take


def sampling_for(stage: PolicyGradient | Offline, rng: np.random.Generator) -> Sampling:
    """How the policy is asked to speak, with what the stage's anchor looks at."""
    gaps = stage.anchor == OwnConfidence.name
    return Sampling(stage.temperature, stage.max_tokens, int(rng.integers(2**31)), gaps=gaps)


def needs_private(recipe: Recipe) -> bool:
    """Whether any stage asks what the policy thinks before anybody speaks.

    Distillation does, and so do anchors that vote in private, wrong claims of the policy's own and
    claims that it makes itself. The others are spared thousands of samples.
    """
    for stage in recipe.stages:
        if isinstance(stage, Distil) or stage.anchor in ("private_majority", "bayes"):
            return True
        own = recipe.tasks.wrong_claims != "perturb" or "self" in recipe.tasks.speakers
        if stage.game == "objection" and own:
            return True
    return False


def private_states(
    recipe: Recipe, policy: Policy, tasks: Sequence[Task], run: RunFolder, seed: int
) -> dict[str, Private]:
    """What the policy thinks of each task before anybody speaks, by task id, if a stage needs it.

    It is asked once, as the run finds it; a resumed run reads what it said then.
    """
    if not needs_private(recipe):
        return {}
    if (run.path / PRIVATE).exists():
        said = {row["task_id"]: row for row in run.read_table(PRIVATE)}
        if said.keys() != {task.id for task in tasks}:
            raise RunFolderError(
                f"{run.path} was begun with other tasks than there are now; put the task file back "
                "as it was, or name another --out"
            )
        rows = [(task, said[task.id]) for task in tasks]
        return {t.id: private_of(t, row["answers"], row["confidences"]) for t, row in rows}
    thinking = Sampling(1.0, recipe.tasks.max_tokens, seed)
    found = deliberate(policy, tasks, recipe.tasks.private_samples, thinking)
    run.table(
        PRIVATE,
        [
            {"task_id": name, "answers": list(p.answers), "confidences": list(p.confidences)}
            for name, p in found.items()
        ],
    )
    return found


class Till:
    """Pays the groups of a round, each seat by its own rewards."""

    def __init__(self, stage: PolicyGradient) -> None:
        self.stage = stage
        n = stage.group
        self.parts = {RESPONDER: make_parts(stage.rewards, stage.reward_options, n=n)}
        self.weights = {RESPONDER: stage.rewards}
        for name, seat in stage.seats.items():
            self.parts[name] = make_parts(seat.rewards, seat.reward_options, n=n)
            self.weights[name] = seat.rewards

    def pay(
        self, groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]]
    ) -> list[list[Reward]]:
        """The reward of every episode; a seat without rewards is paid nothing at all."""
        return [
            [
                score(
                    episode.reply,
                    verdict,
                    self.weights.get(group.seat, {}),
                    self.parts.get(group.seat, {}),
                    self.stage.spans,
                )
                for episode, verdict in zip(group.episodes, judged, strict=True)
            ]
            for group, judged in zip(groups, verdicts, strict=True)
        ]

    @property
    def losses(self) -> dict[str, Losses]:
        """What saying something costs each seat that learns from an expected score."""

        def losses(name: str, weight: float) -> Losses:
            weights, parts = self.weights[name], self.parts[name]
            return lambda said, verdict: -weight * score(said, verdict, weights, parts).total

        seats = self.stage.seats.items()
        return {n: losses(n, s.expected_score) for n, s in seats if s.expected_score}

    def learned_from(
        self,
        groups: Sequence[Group],
        verdicts: Sequence[Sequence[Verdict]],
        rewards: Sequence[Sequence[Reward]],
        step: int,
    ) -> tuple[list[Group], list[Sequence[Verdict]], list[Sequence[Reward]]]:
        """What of a round is learned from: the seats whose turn it is, and ``train_on`` a group."""
        cut = self.stage.train_on
        learned: list[Group] = []
        their_verdicts: list[Sequence[Verdict]] = []
        their_rewards: list[Sequence[Reward]] = []
        for group, judged, paid in zip(groups, verdicts, rewards, strict=True):
            seat = self.stage.seats.get(group.seat)
            if seat is not None and step % seat.every:
                continue
            if cut is not None and (group.answers or group.about is not None):
                group = replace(group, episodes=group.episodes[:cut])
                judged, paid = judged[:cut], paid[:cut]
            learned.append(group)
            their_verdicts.append(judged)
            their_rewards.append(paid)
        return learned, their_verdicts, their_rewards


class Memory:
    """What the parts of a stage remember, and its meters."""

    def __init__(self, anchor: Anchor, game: Game, at: Progress, alarms: Alarms) -> None:
        self.anchor, self.game = anchor, game
        if isinstance(game, Opposed):
            at.opponents = at.opponents if at.step else []
            game.opponents = at.opponents
        self.means, self.votes, self.alarms = RunningMeans(), VoteMeter(), alarms

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        found = {
            "anchor": self.anchor.state(),
            "means": self.means.means,
            "votes": self.votes.state(),
            "alarms": dict(self.alarms.counts),
        }
        if isinstance(self.game, Remembering):
            found["game"] = self.game.state()
        return found

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.anchor.restore(state["anchor"])
        self.means.means = state["means"]
        self.votes.restore(state["votes"])
        self.alarms.counts |= state["alarms"]
        if isinstance(self.game, Remembering):
            self.game.restore(state["game"])
