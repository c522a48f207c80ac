"""What runs give to anchors: real policies, real tasks, runs that stop and go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import stopped_at, tiny_policy

from demur.anchors import judge_round
from demur.anchors.bayes import Bayes
from demur.anchors.tool import calculator
from demur.cli import app
from demur.config import check_recipe, load_recipe
from demur.errors import ConfigError, ModelFolderError
from demur.games.private import deliberate
from demur.games.rounds import Draw
from demur.games.solo import play
from demur.policies.local import LocalPolicy
from demur.recipe import PolicyGradient, Recipe
from demur.runlog import RunFolder
from demur.schema import Claim, Sampling
from demur.supplies import anchor_for, beliefs
from demur.tasks.source import ClaimSettings, Source, world_tasks
from demur.train import train
from demur.world.questions import fact_of
from demur.world.seed import SEED_FOLDER

ANCHORED = ["past", "average", "judge", "corrections", "tool", "bayes", "noisy", "truth"]


def small(name: str, **options: object) -> Recipe:
    table = load_recipe(f"anchored_{name}").model_dump(exclude_none=True)
    table["tasks"] |= {"pool": 12, "private_samples": 2, "max_tokens": 8}
    table["stages"][0] |= {"steps": 4, "prompts": 4, "group": 3, "max_tokens": 12}
    table["stages"][0]["anchor_options"] |= options
    return check_recipe({**table, "checkpoint_every": 1})


@pytest.mark.parametrize("name", ANCHORED)
def test_a_stopped_run_asks_the_same_anchor(tmp_path: Path, name: str) -> None:
    def look(killed: Path) -> None:
        past = killed / "checkpoints/step-1/past"
        assert past.exists() == (name in ("past", "average"))

    lines = stopped_at(2, small(name), tiny_policy, tmp_path, seed=3, look=look)
    if name in ("past", "average", "bayes"):
        assert all(line["anchor_budget"] == 0 for line in lines), "nobody outside was asked"
    else:
        assert lines[-1]["anchor_budget"] > 0
    assert not list((tmp_path / "broken/checkpoints/step-4").glob("past"))


def test_a_past_version_stays_or_follows() -> None:
    old, new = tiny_policy(), tiny_policy()
    with torch.no_grad():
        for weight in new.model.parameters():
            weight.add_(1.0)
    before = [p.clone() for p in old.model.parameters()]
    for _ in range(2):
        old.follow(new, 0.25)
    for was, now in zip(before, old.model.parameters(), strict=True):
        assert torch.allclose(now, was + 1 - 0.75**2, atol=1e-6)


def stage(name: str, **options: object) -> PolicyGradient:
    found = small(name, **options).stages[0]
    assert isinstance(found, PolicyGradient)
    return found


def test_tools_and_facts_know_the_world_without_its_truths() -> None:
    rng = np.random.default_rng(0)
    tasks = world_tasks(("sum", "product", "difference", "fact", "unseen"), "play", 40, rng)
    for task in tasks:
        found = fact_of(task.question) or calculator(task.question)
        assert found == task.truth
    policy = LocalPolicy.from_folder(SEED_FOLDER)
    source = Source(tasks, ClaimSettings(), {})
    groups = play(policy, [(t, None) for t in tasks], 4, Sampling(1.0, 32, 0))
    tool = anchor_for(stage("tool"), policy, source, rng)
    truth = anchor_for(stage("truth"), policy, source, rng)
    assert judge_round(tool, groups) == judge_round(truth, groups)
    assert tool.budget == truth.budget == len(tasks)


def test_a_judge_is_another_model() -> None:
    rng = np.random.default_rng(1)
    tasks = world_tasks(("sum", "fact"), "play", 20, rng)
    policy = LocalPolicy.from_folder(SEED_FOLDER)
    groups = play(policy, [(t, None) for t in tasks], 4, Sampling(1.0, 32, 5))
    source = Source(tasks, ClaimSettings(), {})
    judge = anchor_for(stage("judge"), tiny_policy(), source, rng)
    verdicts = judge_round(judge, groups)
    truth = judge_round(anchor_for(stage("truth"), policy, source, rng), groups)
    agree = [
        (v >= 0.5) == (t == 1.0)
        for row, right in zip(verdicts, truth, strict=True)
        for v, t in zip(row, right, strict=True)
        if v is not None
    ]
    assert np.mean(agree) > 0.9, "the seed model knows sums and most facts"
    assert judge.budget == 8 * len(tasks)


def test_bayes_follows_a_good_source_where_the_vote_is_split() -> None:
    rng = np.random.default_rng(2)
    tasks = world_tasks(("sum", "unseen"), "play", 12, rng)
    policy = LocalPolicy.from_folder(SEED_FOLDER)
    private = deliberate(policy, tasks, 8, Sampling(1.0, 32, 0))
    source = Source(tasks, ClaimSettings(), private)
    known = next(t for t in tasks if private[t.id].share == 1.0)
    torn = min(tasks, key=lambda t: private[t.id].share if private[t.id].modal else 2.0)
    good = Claim("user", "nothing like it", 0.9, disclosed=True)
    poor = Claim("user", "nothing like it", 0.1, disclosed=True)
    kept, taken = beliefs(source, known, poor, 0.5), beliefs(source, torn, good, 0.5)
    assert kept is not None and taken is not None
    assert kept.own_right > 0.9 > 0.5 < taken.claim_right
    alone = beliefs(source, torn, None, 0.5)
    assert alone is not None and alone.own_right == private[torn.id].share
    told = [beliefs(source, torn, Claim("user", "x"), rate) for rate in (0.2, 0.9)]
    assert told[0] is not None and told[1] is not None
    assert told[0].claim_right < told[1].claim_right, "the running rate stands in"
    draws: list[Draw] = [(known, poor), (torn, good)]
    groups = play(policy, draws, 3, Sampling(1.0, 32, 1))
    anchor = anchor_for(stage("bayes"), policy, source, rng)
    assert isinstance(anchor, Bayes) and not anchor.outside
    assert all(v is None or 0 <= v <= 1 for row in judge_round(anchor, groups) for v in row)


def test_what_is_not_there_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the corrections in"):
        small("corrections", log=str(tmp_path / "none.jsonl"))
    run = RunFolder(tmp_path / "run", {"x": 1})
    with pytest.raises(ModelFolderError, match="no model folder at /nowhere"):
        train(small("judge", model="/nowhere"), tiny_policy(), run)
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize(
    "verb", [["train", "anchored_judge"], ["study", "--arms", "anchored_judge"]]
)
def test_a_judge_that_is_not_there_leaves_no_folder(tmp_path: Path, verb: list[str]) -> None:
    out, lost = tmp_path / "run", "stages.0.anchor_options.model=/nowhere"
    with pytest.raises(ModelFolderError, match="no model folder at /nowhere"):
        app([*verb, "--out", str(out), "--set", lost], standalone_mode=False)
    assert not out.exists()
