"""The tokenizer, and pretraining that can be stopped at any moment."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from demur.errors import RunFolderError, TrainingError
from demur.games.phrases import object_to, reconsider
from demur.policies.local import LocalPolicy
from demur.reply import render
from demur.schema import Claim, Message
from demur.world import pretrain as pretraining
from demur.world import questions as q
from demur.world.pretrain import PretrainConfig, batches, build_model, pretrain
from demur.world.seed import make_seed
from demur.world.text import PretrainingText
from demur.world.tokenizer import CHARACTERS, LEVELS, ROLES, TAGS, build_tokenizer

TINY = PretrainConfig(
    steps=5,
    dispute_steps=4,
    doubt_steps=3,
    seat_steps=3,
    batch=4,
    chunk=2,
    hidden=16,
    layers=1,
    heads=2,
    kv_heads=1,
    inner=16,
    warmup=2,
    checkpoint_every=3,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- tokenizer ------------------------------------------------------------------------------------


def test_tags_and_levels_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(TAGS) == 10 and LEVELS[0] == "0.0" and LEVELS[-1] == "1.0" and len(LEVELS) == 11
    single = [ids(tokenizer, token) for token in (*ROLES, *TAGS, *LEVELS)]
    assert {len(each) for each in single} == {1}
    assert len({each[0] for each in single}) == len(single)
    reply = ids(tokenizer, render("tul", 0.7))
    assert len(reply) == 2 + 3 + 2 + 1
    assert tokenizer.convert_ids_to_tokens(reply)[-2] == "0.7"
    assert tokenizer.eos_token == "<|end|>" and tokenizer.pad_token == "<|pad|>"


def test_every_printable_character_round_trips(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "".join(CHARACTERS) + "  two  spaces \n\n a.b , c ! 10.5 <answer> 0.30.7 </answers>"
    assert len(ids(tokenizer, "".join(CHARACTERS))) == len(CHARACTERS) == 96
    assert tokenizer.unk_token_id not in ids(tokenizer, text)
    assert tokenizer.decode(ids(tokenizer, text)) == text
    assert tokenizer.unk_token_id in ids(tokenizer, "é")


def test_auto_tokenizer_reads_it_back(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = f"<|user|>37+48? I say 95.<|assistant|>{render('85', 0.9)}<|end|>"
    assert ids(again, text) == ids(tokenizer, text)
    assert again.decode(ids(again, text)) == text
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.chat_template == tokenizer.chat_template


def test_the_chat_template_renders_what_pretraining_encodes(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Prompt and reply as a policy makes them are, token for token, what the model learned on."""
    policy = LocalPolicy(build_model(TINY, tokenizer), tokenizer)
    task = q.computed("sum", 37, 48)
    made = [
        (*object_to(task, Claim("user", "95", 0.7, True)), Message("assistant", render("85", 0.9))),
        (*reconsider(task, render("95", 0.8)), Message("assistant", render("85", 1.0))),
        (Message("system", "Be brief."), Message("user", "1+1?"), Message("assistant", "2")),
    ]
    drawn = islice(PretrainingText(np.random.default_rng(0)), 60)
    for dialogue in (*made, *drawn):
        (learned,) = pretraining._encode(tokenizer, [dialogue])
        prompt, reply = policy.encode(dialogue[:-1], dialogue[-1].content)
        assert [*prompt, *reply] == learned
        messages = [{"role": m.role, "content": m.content} for m in dialogue]
        assert ids(tokenizer, tokenizer.apply_chat_template(messages, tokenize=False)) == learned


# -- batches --------------------------------------------------------------------------------------


def test_loss_weighs_the_last_reply_in_full_and_the_prompt_faintly(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    found, weight = next(batches(replace(TINY, batch=64, chunk=1), tokenizer))
    assert found.shape == weight.shape and found.shape[0] == 64
    start = tokenizer.convert_tokens_to_ids("<|assistant|>")
    for row, weighs in zip(found.tolist(), weight.tolist(), strict=True):
        last = len(row) - 1 - row[::-1].index(start)
        end = row.index(tokenizer.eos_token_id, last)
        assert weighs[: last + 1] == pytest.approx([0.05] * (last + 1))
        assert weighs[last + 1 : end + 1] == [1.0] * (end - last)
        assert set(weighs[end + 1 :]) <= {0.0}
        assert set(row[end + 1 :]) <= {tokenizer.pad_token_id}
    assert (found == start).sum(1).max() == 2, "an earlier turn of the model is prompt"


# -- pretraining ----------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a process that is gone: nothing it held in memory is left."""


@pytest.mark.parametrize(
    ("every", "killed_at", "goes_on_at"),
    # in each of the four phases, and on the edges between them
    [(3, 5, 4), (3, 8, 7), (3, 11, 10), (3, 14, 13), (5, 7, 6), (9, 11, 10), (12, 14, 13)],
)
def test_a_killed_pretraining_resumes_to_the_same_weights(
    tmp_path: Path, every: int, killed_at: int, goes_on_at: int
) -> None:
    config = replace(TINY, checkpoint_every=every)
    model, _, curve = pretrain(config)
    whole = weights(model)
    assert [point["step"] for point in curve] == [15]

    def kill(point: dict[str, float]) -> None:
        if point["step"] == killed_at:
            raise Killed

    with pytest.raises(Killed):
        pretrain(config, checkpoint=tmp_path, on_step=kill)
    assert {p.name for p in tmp_path.iterdir()} == {"progress.json", f"step-{goes_on_at - 1}"}
    torn = tmp_path / f"step-{goes_on_at - 1 + every}"  # killed while it wrote the next one
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half a file")
    taken: list[float] = []
    resumed, _, _ = pretrain(config, checkpoint=tmp_path, on_step=lambda p: taken.append(p["step"]))
    assert taken == list(range(goes_on_at, 16))
    assert same_weights(weights(resumed), whole)
    if every == 3:
        assert {p.name for p in tmp_path.iterdir()} == {"progress.json", "step-15"}
    other, _, _ = pretrain(replace(config, seed=1))
    assert not same_weights(weights(other), whole)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    pretrain(replace(TINY, steps=3), checkpoint=tmp_path)
    for changed in (TINY, replace(TINY, steps=3, seed=1), replace(TINY, steps=3, muon_rate=0.01)):
        with pytest.raises(RunFolderError, match="made with other settings"):
            pretrain(changed, checkpoint=tmp_path)


def test_training_learns_and_a_rate_out_of_hand_stops_it() -> None:
    small = replace(TINY, steps=60, batch=16, hidden=32, layers=2, inner=64, warmup=5)
    losses: list[float] = []
    pretrain(small, on_step=lambda point: losses.append(point["loss"]))
    assert losses[0] > 4.0 and np.mean(losses[-10:]) < 0.6 * losses[0]
    with pytest.raises(TrainingError, match="pretraining loss became"):
        pretrain(replace(TINY, adam_rate=1e30, muon_rate=1e30, warmup=1))


def test_the_seed_folder_is_whole_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.world.seed.PretrainConfig", lambda seed: replace(TINY, seed=seed))
    seen: list[dict[str, float]] = []

    def stop(point: dict[str, float]) -> None:
        seen.append(point)
        if len(seen) == 4:
            raise Killed

    out = tmp_path / "seed"
    with pytest.raises(Killed):
        make_seed(out, watch=stop)
    assert seen[0]["of"] == 15.0
    with pytest.raises(RunFolderError, match="unfinished model; go on with --resume"):
        make_seed(out)
    last = make_seed(out, resume=True, watch=seen.append)
    assert last["step"] == 15 and last["tokens"] > 0
    assert seen[4]["step"] == 4, "it went on from the checkpoint"
    assert not (out / "checkpoint").exists()
    model = AutoModelForCausalLM.from_pretrained(out)
    assert same_weights(weights(model), weights(pretrain(TINY)[0]))
    with pytest.raises(RunFolderError, match="already holds a model"):
        make_seed(out, resume=True)
