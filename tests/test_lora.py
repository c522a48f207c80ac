"""LoRA in this process: equal to a merged model, alone in learning, whole on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from calling import Run, sentence
from safetensors.torch import load_file, save_file
from tiny import byte_policy, tiny_policy
from transformers import GPT2Config, GPT2LMHeadModel

from demur.config import load_recipe
from demur.engine import adapter
from demur.engine.tree import completion_logits, pack, token_logprobs
from demur.errors import ConfigError, ModelFolderError
from demur.games.phrases import ask
from demur.learners.policy_gradient import PolicyGradient
from demur.policies.local import LocalPolicy
from demur.runlog import RunFolder, read_metrics
from demur.schema import Sample, Sampling, Task
from demur.train import train

pytest.importorskip("peft", reason="needs the extra: pip install 'demur[lora]'")

TASKS = [Task(f"t{i}", f"{i}+{i}?", str(2 * i), "sum", "number") for i in range(6)]
DIALOGUES = [ask(task) for task in TASKS]
LEASH = PolicyGradient(kl=0.5)
SMALL = ("tasks.pool=12", "tasks.families=['sum']", "tasks.private_samples=2", "learner.prompts=2",
         "learner.group=2", "learner.steps=4", "learner.kl=0.1", "lora.rank=2",
         "checkpoint_every=2")  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_policy().save(tmp_path / "base")
    return tmp_path / "base"


def worn(base: Path, steps: int = 3) -> LocalPolicy:
    """The base with an adapter that has learned something."""
    policy = LocalPolicy.from_folder(base)
    policy.adapt(4, 8.0)
    policy.optimise(0.05)
    policy.keep_reference()
    for step in range(steps):
        policy.update(samples(policy, step), LEASH)
    return policy


def samples(policy: LocalPolicy, seed: int) -> list[Sample]:
    rows = policy.reply(DIALOGUES, 3, Sampling(1.0, 8, seed))
    return [
        Sample(c.prompt_ids, c.token_ids, c.logprobs, (1.0 - j,) * len(c.token_ids), i)
        for i, group in enumerate(rows)
        for j, c in enumerate(group)
    ]


def logits(policy: LocalPolicy, given: list[Sample], shared: bool) -> list[torch.Tensor]:
    packs = pack(given, pad_id=policy.pad_id, shared=shared, budget=200, device=torch.device("cpu"))
    with torch.no_grad():
        return [token_logprobs(completion_logits(policy.model, p), p, 1.0) for p in packs]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_an_adapter_is_equal_to_the_merged_model(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    policy = worn(base)
    policy.save(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(base)
    merged = PeftModel.from_pretrained(plain, tmp_path / "adapter").merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    policy.tokenizer.save_pretrained(tmp_path / "merged")
    whole = LocalPolicy.from_folder(tmp_path / "merged")
    given = samples(policy, 9)
    assert policy.shared_prefix, "the tree serves a model with an adapter, too"
    for shared in (True, False):
        for one, other in zip(
            logits(policy, given, shared), logits(whole, given, shared), strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    untrained = LocalPolicy.from_folder(base)
    assert not torch.allclose(logits(policy, given, True)[0], logits(untrained, given, True)[0])
    for sampling in (Sampling(0.0, 12, 0), Sampling(1.0, 12, 3)):
        said, expected = (p.reply(DIALOGUES, 2, sampling) for p in (policy, whole))
        assert [[c.token_ids for c in row] for row in said] == [
            [c.token_ids for c in row] for row in expected
        ]


def test_a_snapshot_shares_the_base_and_keeps_its_adapter(base: Path, tmp_path: Path) -> None:
    policy = worn(base)
    past = policy.snapshot()
    given = samples(policy, 9)
    then = logits(past, given, True)
    policy.update(given, LEASH)
    assert all(map(torch.equal, then, logits(past, given, True))), "it moved with the policy"
    assert not torch.equal(then[0], logits(policy, given, True)[0])
    mine, theirs = (dict(p.model.named_parameters()) for p in (policy, past))
    shared = {n for n in mine if mine[n].data_ptr() == theirs[n].data_ptr()}
    assert shared == {n for n in mine if "lora_" not in n}
    assert any(p.requires_grad for p in mine.values()) and not any(
        p.requires_grad for p in theirs.values()
    )
    past.save(tmp_path / "past")
    recalled = policy.recall(tmp_path / "past", "past")
    for one, other in zip(then, logits(recalled, given, True), strict=True):
        torch.testing.assert_close(one, other)


def test_only_the_adapter_learns_and_it_starts_as_nothing(base: Path) -> None:
    fresh = LocalPolicy.from_folder(base)
    fresh.adapt(4, 8.0)
    plain = LocalPolicy.from_folder(base)
    given = samples(plain, 1)
    for one, other in zip(logits(fresh, given, True), logits(plain, given, True), strict=True):
        assert torch.equal(one, other)
    before = {n: p.detach().clone() for n, p in fresh.model.named_parameters()}
    fresh.optimise(0.01)
    fresh.keep_reference()
    first = fresh.update(given, LEASH)
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    assert fresh.update(given, LEASH)["kl"] > 0.0
    moved = {n for n, p in fresh.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all("lora_" in name for name in moved)
    count = sum(p.numel() for p in fresh.optimiser.parameters) if fresh.optimiser else 0
    assert 0 < count < 0.6 * sum(p.numel() for p in plain.model.parameters())


def test_an_adapter_begins_as_its_seed_says(base: Path) -> None:
    def first(seed: int) -> torch.Tensor:
        policy = LocalPolicy.from_folder(base)
        torch.rand(seed + 1)  # whatever was drawn before
        before = torch.random.get_rng_state()
        policy.adapt(4, 8.0, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before), "and nothing else is moved by it"
        weights = adapter.adapter_weights(policy.model)
        return torch.cat([w.detach().flatten() for n, w in weights.items() if "lora_A" in n])

    one = first(3)
    torch.rand(7)
    assert torch.equal(first(3), one) and not torch.equal(first(4), one)


def test_the_reference_is_the_base_or_the_adapter_of_then(base: Path) -> None:
    """Equal to a deep copy, without one."""
    policy = LocalPolicy.from_folder(base)
    policy.adapt(4, 8.0)
    plain = LocalPolicy.from_folder(base)
    policy.optimise(0.05)
    policy.keep_reference()
    given = samples(policy, 1)
    for _ in range(2):
        policy.update(given, LEASH)
    off = policy.reference
    assert isinstance(off, adapter.EarlierAdapter) and not off.weights
    with off.worn():
        for one, other in zip(logits(policy, given, True), logits(plain, given, True), strict=True):
            assert torch.equal(one, other)
    then = policy.snapshot()
    policy.keep_reference()
    for _ in range(2):
        policy.update(given, LEASH)
    now = logits(policy, given, True)
    earlier = policy.reference
    assert isinstance(earlier, adapter.EarlierAdapter) and earlier.weights
    with earlier.worn():
        for one, other in zip(logits(policy, given, True), logits(then, given, True), strict=True):
            assert torch.equal(one, other)
    for one, other in zip(logits(policy, given, True), now, strict=True):
        assert torch.equal(one, other), "and back again"
    learns = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert learns == set(adapter.adapter_weights(policy.model))


def test_a_folder_holds_the_adapter_alone_and_says_its_base(base: Path, tmp_path: Path) -> None:
    policy = worn(base)
    policy.save(tmp_path / "adapter")
    names = {p.name for p in (tmp_path / "adapter").iterdir()}
    assert {adapter.CONFIG, adapter.WEIGHTS, adapter.BASE, "tokenizer.json"} <= names
    assert "model.safetensors" not in names
    again = LocalPolicy.from_folder(tmp_path / "adapter")
    given = samples(policy, 2)
    for one, other in zip(logits(policy, given, True), logits(again, given, True), strict=True):
        assert torch.equal(one, other)
    learns = {n for n, p in again.model.named_parameters() if p.requires_grad}
    assert learns and all("lora_" in name for name in learns), "it learns on as an adapter"


def test_another_base_a_missing_one_and_a_torn_folder_are_one_sentence(
    base: Path, tmp_path: Path
) -> None:
    worn(base, steps=1).save(tmp_path / "adapter")
    config = tmp_path / "adapter" / adapter.CONFIG

    def refused() -> str:
        with pytest.raises(ModelFolderError) as error:
            LocalPolicy.from_folder(tmp_path / "adapter")
        return str(error.value)

    other = tmp_path / "other"
    tiny_policy().save(other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(bytes(weights))
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"base_model_name_or_path": str(other)}))
    assert "was made for other weights" in refused()
    config.write_text(json.dumps(told | {"base_model_name_or_path": "someone/model"}))
    assert "someone/model, which is not here; set base_model_name_or_path" in refused()
    config.write_text(json.dumps(told | {"peft_type": "IA3"}))
    assert "only LORA" in refused()
    config.write_text("{")
    assert "cannot be read as JSON" in refused()
    config.write_text(json.dumps(told))
    (tmp_path / "adapter" / adapter.WEIGHTS).unlink()
    assert f"has no {adapter.WEIGHTS}" in refused()


def test_an_adapter_of_a_deeper_model_that_names_no_weights_is_refused(
    base: Path, tmp_path: Path
) -> None:
    worn(base, steps=1).save(tmp_path / "adapter")
    (tmp_path / "adapter" / adapter.BASE).unlink()  # as peft and other trainers leave it
    LocalPolicy.from_folder(tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / adapter.WEIGHTS)
    deeper = {name.replace("layers.0", "layers.9"): w.clone() for name, w in weights.items()}
    save_file(weights | deeper, tmp_path / "adapter" / adapter.WEIGHTS)
    with pytest.raises(ModelFolderError, match=r"made for another model.*has no .*layers\.9") as e:
        LocalPolicy.from_folder(tmp_path / "adapter")
    assert "set base_model_name_or_path" in str(e.value)


def test_layers_of_gpt2_are_linear_too() -> None:
    given = {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2}
    for targets in (["c_attn"], []):
        model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, **given))
        adapter.attach(model, 2, 4.0, targets)
        learns = {n.split(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad}
        assert {name.rpartition(".")[2] for name in learns} == {*targets} or len(learns) == 4
        assert "transformer.h.0.attn.c_attn" in learns and "lm_head" not in learns


def test_an_adapter_holds_no_new_token(run: Run, tmp_path: Path) -> None:
    byte_policy().save(tmp_path / "bytes")
    out = tmp_path / "run"
    told = run("train", "pcl", "--model", tmp_path / "bytes", "--set", "lora.rank=2", "--out", out)
    assert "an adapter cannot hold the new token <post_completion>: train" in sentence(told)
    assert not out.exists()
    recipe = load_recipe("pcl", ["lora.rank=2", "tasks.pool=4"])
    here = LocalPolicy.from_folder(tmp_path / "bytes")
    with pytest.raises(ConfigError, match="cannot hold the new token"):
        train(recipe, here, RunFolder(tmp_path / "study", {}))
    assert here.post_id is None


def test_what_an_adapter_cannot_do_is_refused(base: Path) -> None:
    policy = LocalPolicy.from_folder(base)
    with pytest.raises(ConfigError, match=r"lora.targets bogus are no linear layers.*q_proj"):
        policy.adapt(4, 8.0, ["bogus"])
    policy.adapt(4, 8.0, ["q_proj", "v_proj"])
    assert all("q_proj" in n or "v_proj" in n for n in adapter.adapter_weights(policy.model))
    with pytest.raises(ConfigError, match="already wears an adapter"):
        policy.adapt(4, 8.0)
    with pytest.raises(ModelFolderError, match="a base in a folder"):
        tiny_policy().adapt(4, 8.0)


def test_a_run_with_an_adapter_resumes_to_the_same_figures(base: Path, tmp_path: Path) -> None:
    recipe = load_recipe("correctness", SMALL)
    assert recipe.lora is not None and recipe.lora.rank == 2

    class Killed(Exception):
        pass

    def kill(line: dict[str, object]) -> None:
        if line["step"] == 3:
            raise Killed

    def go(folder: str, **more: object) -> None:
        run = RunFolder(tmp_path / folder, {"x": 1}, resume=bool(more.pop("resume", False)))
        train(recipe, LocalPolicy.from_folder(base), run, seed=1, **more)  # type: ignore[arg-type]

    go("whole")
    with pytest.raises(Killed):
        go("broken", watch=kill)
    go("broken", resume=True)
    logs = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(path)]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "broken" / "metrics.jsonl")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 4
    last = tmp_path / "broken" / "checkpoints" / "step-4"
    assert (last / adapter.WEIGHTS).stat().st_size < 0.5 * (
        base / "model.safetensors"
    ).stat().st_size
    shutil.rmtree(tmp_path / "whole")
    assert LocalPolicy.from_folder(last).reply(DIALOGUES, 1, Sampling(0.0, 8, 0))
