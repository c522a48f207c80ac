"""Training on a real engine (SkyRL, JAX, CPU): make test-engine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from demur.errors import EngineError
from demur.learners.policy_gradient import PolicyGradient, Supervised
from demur.policies.connection import Connection
from demur.policies.local import LocalPolicy
from demur.policies.tinker import TinkerPolicy
from demur.runlog import read_metrics
from demur.schema import Completion, ExpectedScore, Message, Sample, Sampling
from demur.tables import Remote
from demur.world.seed import SEED_FOLDER
from engines import SkyRL

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

ASKED = tuple(
    (Message("user", text),)
    for text in ("What is 3 + 4?", "What is 12 - 5?", "Which is larger, 12 or 7?", "What is 6 + 9?")
)


@pytest.fixture(scope="module")
def skyrl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyRL]:
    engine = SkyRL(tmp_path_factory.mktemp("engine") / "state", "--batch", "32", "--adapters", "24")
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def link(skyrl: SkyRL) -> Connection:
    return Connection(skyrl.url)


def logprobs(policy: LocalPolicy, completion: Completion) -> np.ndarray:
    """Of a completion's tokens, one forward pass over it alone."""
    ids = torch.tensor([(*completion.prompt_ids, *completion.token_ids)])
    with torch.no_grad():
        told = torch.log_softmax(policy.model(ids).logits[0, :-1], dim=-1)
    picked = told.gather(1, ids[0, 1:, None])[:, 0]
    return picked[len(completion.prompt_ids) - 1 :].numpy()


def samples(policy: TinkerPolicy, seed: int) -> list[Sample]:
    """Replies with made-up advantages that sum to no particular value."""
    rng = np.random.default_rng(seed)
    rows = policy.reply(ASKED, 4, Sampling(1.0, 16, seed))
    return [
        Sample(c.prompt_ids, c.token_ids, c.logprobs, (float(rng.normal()),) * len(c.token_ids), i)
        for i, row in enumerate(rows)
        for c in row
    ]


def near(far: TinkerPolicy, folder: Path) -> LocalPolicy:
    """The same adapter on the same base, here."""
    far.save(folder)
    return LocalPolicy.from_folder(folder)


def weights(policy: LocalPolicy) -> torch.Tensor:
    state = policy.model.state_dict()
    return torch.cat([state[name].flatten() for name in sorted(state) if "lora_" in name])


def share_as_skyrl(policy: LocalPolicy) -> None:
    """Let an adapter's layers that read the same share what reads it, as SkyRL's fused ones do."""
    for layer in policy.model.model.layers:
        for first, *others in (
            (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
            (layer.mlp.gate_proj, layer.mlp.up_proj),
        ):
            for other in others:
                assert torch.equal(other.lora_A["default"].weight, first.lora_A["default"].weight)
                other.lora_A = first.lora_A


def test_what_is_drawn_there_is_as_probable_here(link: Connection, tmp_path: Path) -> None:
    far = TinkerPolicy(link, str(SEED_FOLDER), seed=1)
    far.adapt(8)
    far.optimise(0.02)
    for step in range(2):  # an adapter that has learned something
        far.update(samples(far, step), PolicyGradient())
    here = near(far, tmp_path / "worn")
    untrained = LocalPolicy.from_folder(SEED_FOLDER)
    drawn = [c for row in far.reply(ASKED, 4, Sampling(1.0, 16, 9)) for c in row]
    for completion in drawn:
        np.testing.assert_allclose(logprobs(here, completion), completion.logprobs, atol=1e-4)
        assert completion.policy_version == 2
        assert completion.stop == "stop" or len(completion.token_ids) == 16
    other = np.concatenate([logprobs(untrained, c) - np.array(c.logprobs) for c in drawn])
    assert np.abs(other).max() > 0.1, "the engine's adapter has changed nothing"
    again = [c for row in far.reply(ASKED, 4, Sampling(1.0, 16, 9)) for c in row]
    assert [c.token_ids for c in again] == [c.token_ids for c in drawn]


def demonstrations(policy: TinkerPolicy, seed: int) -> list[Sample]:
    """Texts of several lengths, as each token weighs alike."""
    rng = np.random.default_rng(seed)
    found = []
    for number, asked in enumerate(ASKED):
        digits = "".join(map(str, rng.integers(10, size=1 + 5 * number)))
        text = f"<answer>{digits}</answer><confidence>0.{rng.integers(10)}</confidence>"
        prompt, ids = policy.encode(asked, text)
        found.append(Sample(prompt, ids, (), (1.0,) * len(ids), number))
    assert len({len(s.completion_ids) for s in found}) > 2
    return found


def with_texts(policy: TinkerPolicy, seed: int) -> list[Sample]:
    """Replies, and between them texts to imitate at weights of their own."""
    rng = np.random.default_rng(seed)
    texts = [
        replace(s, advantages=(float(rng.uniform(0.1, 3.0)),) * len(s.completion_ids))
        for s in demonstrations(policy, seed)
    ]
    return [*samples(policy, seed), *texts]


KINDS = ("ppo", "importance_sampling", "cispo", "grpo", "cross_entropy", "imitation")


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_there_is_a_step_here(link: Connection, tmp_path: Path, kind: str) -> None:
    """Both begin as one adapter and take the same steps on the same samples."""
    loss: PolicyGradient | Supervised = PolicyGradient()
    remote = Remote()
    if kind == "grpo":
        loss = PolicyGradient(normalise="grpo")
    elif kind == "cross_entropy":
        loss = Supervised()
    elif kind in ("importance_sampling", "cispo"):  # without bounds their gradient is one
        loss, remote = PolicyGradient(clip=1e6), Remote(loss=kind)
    far = TinkerPolicy(link, str(SEED_FOLDER), seed=2, remote=remote)
    far.adapt(8)
    far.optimise(0.005)
    make = {"cross_entropy": demonstrations, "imitation": with_texts}.get(kind, samples)
    given = [make(far, seed) for seed in (1, 2, 3, 4)]
    here = near(far, tmp_path / "begun")
    share_as_skyrl(here)
    begun = weights(here).clone()
    here.optimise(0.005, max_grad_norm=1e9)  # this engine knows no such limit
    for batch in given:
        local = here.update(batch, loss)
        far.feed(batch[:3], loss)  # in waves, as in training
        stats = far.update(batch, loss)
        assert stats["samples"] == len(batch)
        compared = {"loss", "entropy", "grad_norm", "clip_share"} & local.keys()
        if kind == "cispo":
            compared.remove("loss")  # another quantity with the same gradient
        for name in compared:
            near_enough = 0.02 if name == "clip_share" else 2e-3  # a token either way
            assert stats[name] == pytest.approx(local[name], rel=0.02, abs=near_enough), name
    ended = weights(near(far, tmp_path / "ended"))
    moved, expected = ended - begun, weights(here) - begun
    assert torch.nn.functional.cosine_similarity(moved, expected, dim=0) > 0.99
    assert float(moved.norm()) == pytest.approx(float(expected.norm()), rel=0.02)


def test_an_expected_score_teaches_the_level(link: Connection, tmp_path: Path) -> None:
    far = TinkerPolicy(link, str(SEED_FOLDER), seed=3)
    far.optimise(0.01)
    levels = far.level_ids
    assert levels is not None
    costs = tuple((k / 10 - 0.3) ** 2 for k in range(11))
    given = []
    for sample in demonstrations(far, 0):
        at = next(t for t, token in enumerate(sample.completion_ids) if token in levels)
        weight = tuple(0.0 if t == at else 1.0 for t in range(len(sample.completion_ids)))
        term = ExpectedScore(at, levels, costs, 5.0)
        given.append(replace(sample, advantages=weight, expected_score=term))

    def cost() -> float:
        here = near(far, tmp_path / f"at-{far.version}")
        total = 0.0
        for sample in given:
            assert sample.expected_score is not None
            ids = (*sample.prompt_ids, *sample.completion_ids[: sample.expected_score.position])
            with torch.no_grad():
                logits = here.model(torch.tensor([ids])).logits[0, -1, list(levels)]
            total += float((torch.softmax(logits, -1) * torch.tensor(costs)).sum())
        return total / len(given)

    before = cost()
    for _ in range(8):
        far.update(given, Supervised())
    assert cost() < 0.5 * before


def test_a_snapshot_stays_and_spoils_nothing(link: Connection, tmp_path: Path) -> None:
    far = TinkerPolicy(link, str(SEED_FOLDER), seed=4)
    far.optimise(0.02)
    far.update(samples(far, 0), PolicyGradient())
    past = far.snapshot()
    then = near(far, tmp_path / "then")
    far.update(samples(far, 1), PolicyGradient())
    now = near(far, tmp_path / "now")
    asked = Sampling(1.0, 12, 5)
    for policy, same in ((past, then), (far, now)):
        for completion in (c for row in policy.reply(ASKED, 2, asked) for c in row):
            np.testing.assert_allclose(logprobs(same, completion), completion.logprobs, atol=1e-4)
    past.save(tmp_path / "past")
    recalled = far.recall(tmp_path / "past", "past")
    for completion in (c for row in recalled.reply(ASKED, 2, asked) for c in row):
        np.testing.assert_allclose(logprobs(then, completion), completion.logprobs, atol=1e-4)


def test_a_checkpoint_goes_on_as_if_nothing_had_been(skyrl: SkyRL, tmp_path: Path) -> None:
    """In another session, with the weights, Adam's moments and the schedule of then."""
    rate, warmup = 0.01, 4
    far = TinkerPolicy(Connection(skyrl.url), str(SEED_FOLDER), seed=5)
    far.adapt(8)
    far.optimise(rate, warmup=warmup)
    for step in range(2):
        far.update(samples(far, step), PolicyGradient())
    far.save(tmp_path / "saved")
    given = samples(far, 7)
    far.update(given, PolicyGradient())
    expected = weights(near(far, tmp_path / "went-on"))

    def ended(resumes: bool) -> torch.Tensor:
        again = TinkerPolicy(Connection(skyrl.url), str(SEED_FOLDER), seed=6)
        again.optimise(rate, warmup=warmup)
        again.load(tmp_path / "saved")
        if resumes:
            again.load_optimiser(tmp_path / "saved")
        again.update(given, PolicyGradient())
        return weights(near(again, tmp_path / f"again-{resumes}"))

    moved = expected - weights(LocalPolicy.from_folder(tmp_path / "saved"))
    near_enough = 1e-3 * float(moved.norm())
    assert float((ended(True) - expected).norm()) < near_enough
    assert float((ended(False) - expected).norm()) > 100 * near_enough, "another place in warm-up"


def test_places_are_given_back(tmp_path: Path) -> None:
    """An engine has places for so many adapters; a policy that is gone leaves its own."""
    engine = SkyRL(tmp_path / "state", "--batch", "16", "--adapters", "2")
    try:
        link = Connection(engine.url)
        far = TinkerPolicy(link, str(SEED_FOLDER), seed=1)
        far.optimise(0.01)
        far.update(samples(far, 0), PolicyGradient())
        far.save(tmp_path / "saved")
        for _ in range(3):
            past = far.snapshot()
            assert past.reply(ASKED[:1], 1, Sampling(1.0, 8, 0))
            del past
        far.load(tmp_path / "saved")
        held = [far.snapshot(), far.snapshot()]
        held[0].reply(ASKED[:1], 1, Sampling(1.0, 8, 0))
        with pytest.raises(EngineError, match="no room for another adapter"):
            held[1].reply(ASKED[:1], 1, Sampling(1.0, 8, 0))
    finally:
        engine.stop()


SMALL = ("tasks.pool=24", "tasks.private_samples=2", "learner.prompts=8", "learner.group=4",
         "remote.patience=8", "checkpoint_every=2")  # fmt: skip


def train(url: str, out: Path, *more: str, steps: int) -> subprocess.Popen[str]:
    program = "from demur.cli import main; main()"
    command = [sys.executable, "-c", program, "train", "correctness", "--policy", "tinker"]
    command += ["--base-url", url, "--out", str(out), "--quiet", *more]
    for key in (*SMALL, f"learner.steps={steps}"):
        command += ["--set", key]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_engine_that_goes_away_leaves_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "run"
    engine = SkyRL(state, "--batch", "16")
    try:
        running = train(engine.url, out, steps=6)
        deadline = time.monotonic() + 300
        while not (out / "checkpoints" / "step-2").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
            assert running.poll() is None, running.communicate()
        engine.stop()
        _, said = running.communicate(timeout=120)
        assert running.returncode == 2
        assert said.count("\n") == 1 and "has gone away" in said and "--resume" in said, said
        assert not list((out / "checkpoints").glob(".tmp*")), "nothing is left half-written"
        engine = SkyRL(state, "--batch", "16", port=engine.port)
        again = train(engine.url, out, "--resume", steps=6)
        told, said = again.communicate(timeout=500)
        assert again.returncode == 0, said
        lines = read_metrics(out / "metrics.jsonl")
        assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
        updates = sum(bool(line["samples"]) for line in lines)
        facts = json.loads((out / "checkpoints" / "step-6" / "engine.json").read_text())
        assert facts["version"] == facts["taken"] == updates >= 3
        assert (out / "report.html").is_file() and "step-6" in told
        LocalPolicy.from_folder(out / "checkpoints" / "step-6")
    finally:
        engine.stop()


def test_a_model_that_the_engine_does_not_have(skyrl: SkyRL, tmp_path: Path) -> None:
    running = train(skyrl.url, tmp_path / "run", "--model", "Qwen/Qwen3-8B", steps=2)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 2 and "has no model 'Qwen/Qwen3-8B'; it serves" in said
    assert not (tmp_path / "run").exists()
