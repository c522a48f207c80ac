"""What a run gives to its anchors: votes, past selves, other policies, tables, slips.

An anchor knows no policy and no world. Each thing that one may need (``demur.anchors.SUPPLIED``) is
made here as a plain function over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from demur.anchors import Anchor, make_anchor
from demur.anchors.bayes import Beliefs
from demur.anchors.judge import Judge
from demur.anchors.past_version import Answers, PastVersion
from demur.engine.options import Engine
from demur.games.private import deliberate
from demur.learners.confidence import own_confidence
from demur.measure.belief import third_answer
from demur.measure.listener import GUESS_RATE, Situation, weigh
from demur.policies.endpoint import EndpointPolicy
from demur.policies.folder import model_folder
from demur.policies.local import LocalPolicy
from demur.recipe import Distil, Offline, PolicyGradient, Recipe
from demur.schema import Claim, Policy, Sampling, Task, Trainable
from demur.tasks.grader import same
from demur.tasks.source import Source, perturb
from demur.world.market import sold
from demur.world.questions import fact_of

ALONE_TOKENS = 32
"""Longest reply of a policy that is asked alone, for the embedded world and other short answers."""


def anchor_for(
    stage: PolicyGradient | Offline,
    policy: Trainable,
    source: Source,
    rng: np.random.Generator,
    past: Policy | None = None,
) -> Anchor:
    """The anchor of a stage, with what a run supplies to it; ``past`` is an earlier self."""
    voice = policy if past is None else past
    alone = Alone(stage.max_tokens, int(rng.integers(2**31)) if asks(stage) else 0)
    return make_anchor(
        stage.anchor,
        stage.anchor_options,
        rng=rng,
        private=source.vote,
        own=own_confidence(policy.pieces),
        weigh=lambda task, claim, rate: beliefs(source, task, claim, rate),
        past=alone.of(voice),
        load=partial(other_policy, engine=policy.engine),
        alone=alone,
        lookup=fact_of,
        sold=sold,
        perturb=lambda task, drawn: perturb(task, np.random.default_rng(drawn)),
    )


def other_policy(model: str, endpoint: str, engine: Engine) -> Policy:
    """A model folder, or a model behind a server, which has to be there: ``EndpointError``."""
    if endpoint:
        policy = EndpointPolicy(endpoint, model)
        policy.check()
        return policy
    return LocalPolicy.from_folder(model_folder(model), model, engine)


def check_judges(recipe: Recipe) -> None:
    """Refuse a judge that is not there before any work; ``ModelFolderError``, ``EndpointError``."""
    for stage in recipe.stages:
        if isinstance(stage, Distil) or stage.anchor != Judge.name:
            continue
        model = str(stage.anchor_options.get("model", "seed"))
        if endpoint := stage.anchor_options.get("endpoint"):
            EndpointPolicy(str(endpoint), model).check()
        else:
            model_folder(model)


def asks(stage: PolicyGradient | Offline) -> bool:
    """Whether the anchor of a stage asks policies, and so needs random numbers for them."""
    return stage.anchor in (PastVersion.name, Judge.name)


class Alone:
    """Asks policies questions alone, with other random numbers each time."""

    def __init__(self, max_tokens: int, seed: int) -> None:
        self.sampling = Sampling(1.0, max_tokens, seed)

    def __call__(
        self, policy: Policy, tasks: Sequence[Task], samples: int
    ) -> list[list[str | None]]:
        """The answers of each task."""
        found = deliberate(policy, tasks, samples, self.sampling)
        return [list(found[task.id].answers) for task in tasks]

    def of(self, policy: Policy) -> Answers:
        """One policy's answers."""
        return lambda tasks, samples: self(policy, tasks, samples)


def beliefs(source: Source, task: Task, claim: Claim | None, rate: float) -> Beliefs | None:
    """The posterior of a private vote and a claim, of a source of that rate if it tells none.

    ``None`` where the private samples agree on no answer that can be read.
    """
    own, share = source.vote(task)
    if own is None:
        return None
    if claim is None or claim.speaker == "self":
        return Beliefs(own, share, 0.0, (1.0 - share) * GUESS_RATE)
    found = weigh(Situation(task, claim, own, share, share), default_rate=rate)
    agrees = same(own, claim.answer, task.grader)
    third = float(third_answer(found, agrees, GUESS_RATE))
    return Beliefs(own, float(found.own), float(found.claim), third)
