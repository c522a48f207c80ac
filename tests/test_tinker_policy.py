"""A whole run on an engine, seen from here: what is sent, in which order, and what is kept."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import Ran, Run, sentence
from scripted_engine import MODEL, RANK, Engine, archived, serving, spoken

from demur.engine import adapter
from demur.errors import EndpointError
from demur.learners.policy_gradient import PolicyGradient, Supervised
from demur.policies import connection, engine_files
from demur.policies.connection import Connection
from demur.policies.local import LocalPolicy
from demur.policies.tinker import BETAS, EPS, TinkerPolicy
from demur.runlog import read_metrics
from demur.schema import ExpectedScore, Message, Sample, Sampling
from demur.tables import Remote

pytest.importorskip("tinker", reason="needs the extra: pip install 'demur[tinker]'")
pytestmark = [  # the client library leaves its connections to the collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SKYRL = "Tinker API Mock"
SMALL = ("tasks.pool=24", "tasks.private_samples=2", "learner.prompts=6", "learner.group=4",
         "learner.steps=3", "checkpoint_every=1", f"lora.rank={RANK}")  # fmt: skip
ASKED = ((Message("user", "12+30?"),), (Message("user", "7+8?"),))


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[list[int]], bytes]:
    return spoken(), archived(tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def engine(held: tuple[list[list[int]], bytes]) -> Iterator[Engine]:
    with serving(*held) as found:
        yield found


@pytest.fixture
def skyrl(held: tuple[list[list[int]], bytes]) -> Iterator[Engine]:
    with serving(*held, SKYRL) as found:
        yield found


def train(run: Run, url: str, out: Path, *more: str) -> Ran:
    sets = [part for key in SMALL for part in ("--set", key)]
    place = ("--policy", "tinker", "--base-url", url, "--out", str(out))
    return run("train", "rlcr_objection", *place, *sets, *more)


def one(advantage: float = 1.0, **more: Any) -> Sample:
    return Sample((1, 2), (5, 6, 7), (-0.5,) * 3, (advantage,) * 3, 0, **more)


def test_a_run_is_pipelined_and_its_checkpoint_is_a_model(
    engine: Engine, run: Run, tmp_path: Path
) -> None:
    told = train(run, engine.url, tmp_path / "run", "--quiet")
    assert told.code == 0, told.err
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["samples"] > 0 for line in lines)
    begun = engine.bodies("create_model")
    assert len(begun) == 1 and begun[0]["lora_config"]["rank"] == RANK
    # Each step: two waves are played, the first is sent while the second is played, then the step
    # and new weights to sample from, without a pause; a checkpoint after each.
    order = engine.kinds("forward_backward", "optim_step", "save_weights_for_sampler")
    once = ["forward_backward", "forward_backward", "optim_step", "save_weights_for_sampler"]
    sampler = ["save_weights_for_sampler"]
    assert order == sampler + 3 * (once + sampler), "the second is the checkpoint's"
    private = [b for b in engine.bodies("asample") if b["num_samples"] == 2]
    played = [b for b in engine.bodies("asample") if b["num_samples"] == 4]
    assert len(played) == 3 * 6 and len(private) >= 24
    seeds = [b["sampling_params"]["seed"] for b in played]
    assert len(set(seeds)) == len(seeds), "no two prompts share random numbers"
    last = tmp_path / "run" / "checkpoints" / "step-3"
    facts = json.loads((last / "engine.json").read_text())
    assert facts["state"] == engine.saved[-1] and facts["version"] == facts["taken"] == 3
    policy = LocalPolicy.from_folder(last)
    assert adapter.adapted(policy.model) and policy.reply(ASKED, 1, Sampling(0.0, 24, 0))[0][0].text
    assert json.loads((last / adapter.CONFIG).read_text())["r"] == RANK


def test_adam_is_told_what_a_local_one_would_be(engine: Engine) -> None:
    policy = TinkerPolicy(Connection(engine.url), MODEL)
    policy.optimise(0.5, warmup=2, decay=10, max_grad_norm=3.0)
    for _ in range(3):
        policy.feed([one(0.5)], PolicyGradient())
        stats = policy.update([one(0.5), one(-2.0)], PolicyGradient())
        assert stats["samples"] == 2.0
    sent = [b["adam_params"] for b in engine.bodies("optim_step")]
    assert [s["learning_rate"] for s in sent] == pytest.approx([0.25, 0.5, 0.5])
    whole = 2 * 3  # samples times their mean length: what bnpo would have divided by
    for s in sent:
        assert (s["beta1"], s["beta2"]) == BETAS
        assert s["eps"] == pytest.approx(EPS * whole)
        assert s["grad_clip_norm"] == pytest.approx(3.0 * whole)
    first, second = engine.bodies("forward_backward")[:2]
    for body, advantage in ((first, 0.5), (second, -2.0)):
        (datum,) = body["forward_backward_input"]["data"]
        assert datum["loss_fn_inputs"]["advantages"]["data"] == [0.0] + [advantage] * 3
        assert datum["loss_fn_inputs"]["target_tokens"]["data"] == [2, 5, 6, 7]
        assert body["forward_backward_input"]["loss_fn"] == "ppo"
        assert body["forward_backward_input"]["loss_fn_config"] == {
            "clip_low_threshold": 0.8, "clip_high_threshold": 1.2,
        }  # fmt: skip


def test_a_resumed_run_goes_on_from_the_engines_own(
    engine: Engine, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    count = 0

    def dies(what: str) -> int:
        nonlocal count
        count += what == "optim_step"
        return 400 if count == 3 else 0

    engine.breaks = dies
    told = sentence(train(run, engine.url, out, "--quiet"))
    assert engine.url in told and "look at its own log" in told
    assert len(read_metrics(out / "metrics.jsonl")) == 2
    engine.breaks = lambda what: 0
    engine.asked.clear()
    assert train(run, engine.url, out, "--quiet", "--resume").code == 0
    (loaded,) = engine.bodies("load_weights")
    facts = json.loads((out / "checkpoints" / "step-2" / "engine.json").read_text())
    assert loaded["path"] == facts["state"] and loaded["optimizer"] is True
    before = engine.kinds()[: engine.kinds().index("load_weights")]
    assert "asample" not in before, "nothing is asked twice, and a wrong engine shows at once"
    assert not [b for b in engine.bodies("asample") if b["num_samples"] == 2]
    assert [line["step"] for line in read_metrics(out / "metrics.jsonl")] == [1, 2, 3]
    sent = [b["adam_params"]["learning_rate"] for b in engine.bodies("optim_step")]
    assert len(sent) == 1


def test_another_engine_is_found_out_before_any_work(
    engine: Engine, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert train(run, engine.url, out, "--quiet").code == 0
    (out / "checkpoints" / "step-3").rename(tmp_path / "gone")
    engine.asked.clear()
    engine.breaks = lambda what: 404 if what == "load_weights" else 0
    told = sentence(train(run, engine.url, out, "--quiet", "--resume"))
    assert "does not have what was asked for" in told and "the engine that trained this run" in told
    assert not engine.bodies("asample") and not engine.bodies("optim_step")
    assert (out / "checkpoints" / "step-2" / "engine.json").exists()


def test_what_fails_in_passing_is_tried_again(engine: Engine, run: Run, tmp_path: Path) -> None:
    failed: set[str] = set()

    def once(what: str) -> int:
        first = what not in failed and what not in ("client/config", "telemetry", "")
        failed.add(what)
        return 503 if first else 0

    link = Connection(engine.url)
    engine.breaks = once
    policy = TinkerPolicy(link, MODEL)
    policy.adapt(RANK)
    policy.optimise(0.1)
    assert policy.reply(ASKED, 3, Sampling(1.0, 16, 0))[1][2].text
    policy.update([one()], PolicyGradient())
    policy.save(tmp_path / "saved")
    assert (tmp_path / "saved" / adapter.WEIGHTS).exists()
    assert {"asample", "forward_backward", "optim_step", "save_weights", "archive"} <= failed
    assert len(engine.bodies("optim_step")) == len(engine.bodies("forward_backward")) == 1


def test_an_archive_that_stays_broken_is_one_sentence(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_files.time, "sleep", lambda seconds: None)
    policy = TinkerPolicy(Connection(engine.url), MODEL)
    whole = engine.archive
    for broken in (b"<html>", whole[: len(whole) // 2], b""):
        engine.archive = broken
        with pytest.raises(Exception, match="could not be fetched from the engine") as caught:
            policy.save(tmp_path / "saved")
        assert "\n" not in str(caught.value) and "go on with --resume" in str(caught.value)


def test_an_engine_that_is_gone_behind_a_proxy_is_given_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "POLL", 0.2)
    link = Connection(engine.url, patience=0.5)
    policy = TinkerPolicy(link, MODEL)
    policy.reply(ASKED, 1, Sampling(1.0, 8, 0))
    engine.down = True
    with pytest.raises(EndpointError, match="has gone away; start it again and go on with"):
        policy.reply(ASKED, 1, Sampling(1.0, 8, 1))


def test_places_are_given_back_where_they_are_few(
    skyrl: Engine, engine: Engine, tmp_path: Path
) -> None:
    for server, counts in ((skyrl, [0, 1, 2, 3]), (engine, [0, 0, 0, 0])):
        policy = TinkerPolicy(Connection(server.url), MODEL, remote=Remote(reduction="sum"))
        policy.adapt(RANK)
        policy.optimise(0.1)
        policy.update([one()], PolicyGradient())
        policy.save(tmp_path / "saved")
        past = policy.snapshot()
        past.reply(ASKED, 1, Sampling(1.0, 8, 0))
        found = [len(server.bodies("unload_model"))]
        del past
        gc.collect()
        found.append(len(server.bodies("unload_model")))
        policy.load(tmp_path / "saved")
        found.append(len(server.bodies("unload_model")))
        policy.reply(ASKED, 1, Sampling(1.0, 8, 0))
        del policy
        gc.collect()
        found.append(len(server.bodies("unload_model")))
        assert found == counts
        gone = [body["model_id"] for body in server.bodies("unload_model")]
        assert len(set(gone)) == len(gone)


def test_weights_to_sample_from_are_made_where_something_is_sampled(engine: Engine) -> None:
    policy = TinkerPolicy(Connection(engine.url), MODEL)
    policy.optimise(0.1)
    text = Sample((1, 2), (5, 6), (), (1.0, 1.0), 0)
    for _ in range(3):
        policy.update([text], Supervised())
    assert engine.kinds("save_weights_for_sampler") == []
    policy.reply(ASKED, 1, Sampling(1.0, 8, 0))
    policy.update([one()], PolicyGradient())
    assert len(engine.kinds("save_weights_for_sampler")) == 2


def test_backends_that_add_up_get_one_loss_at_a_time(skyrl: Engine) -> None:
    """SkyRL's own compute a whole batch by its first loss, so that no two may wait side by side."""
    policy = TinkerPolicy(Connection(skyrl.url), MODEL, remote=Remote(reduction="sum"))
    levels = policy.level_ids
    assert levels is not None
    term = ExpectedScore(1, levels, tuple(float(k) for k in range(len(levels))), 1.0)
    text = Sample((1, 2), (5, levels[3], 6), (), (1.0, 0.0, 1.0), 0, "r", term)
    waited: list[int] = []
    wait = policy.connection.wait

    def noted(future: Any) -> Any:
        found = wait(future)
        waited.append(len(skyrl.bodies("forward_backward")))
        return found

    policy.connection.wait = noted  # type: ignore[method-assign]
    policy.feed([text], Supervised())
    assert waited[-1] == 1, "the first was waited for before the second was sent"
    for _, answer in policy._answers:
        wait(answer)
    losses = [b["forward_backward_input"]["loss_fn"] for b in skyrl.bodies("forward_backward")]
    assert losses == ["cross_entropy", "importance_sampling"]


def test_the_user_is_told_what_skyrl_is_taken_for(skyrl: Engine, run: Run, tmp_path: Path) -> None:
    told = train(run, skyrl.url, tmp_path / "run")
    assert told.code == 0 and "--set remote.reduction=sum" in told.err
    told = train(run, skyrl.url, tmp_path / "other", "--set", "remote.reduction=mean")
    assert told.code == 0 and "remote.reduction" not in told.err
