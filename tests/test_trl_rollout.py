"""The objection game as a rollout of TRL's own GRPOTrainer."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grpo import OPTIONS, WEIGHTS, Rows, Watched, logged, totals, trainer_of, truth_says

from demur.anchors import make_anchor
from demur.engine.probe import FallbackWarning
from demur.errors import ConfigError
from demur.games.phrases import ask, object_to
from demur.games.rounds import Draw, draw_json, draw_of
from demur.integrations.trl import reward_funcs
from demur.learners.confidence import own_confidence
from demur.policies.local import LocalPolicy
from demur.schema import Claim, Sampling, Task
from demur.world.seed import SEED_FOLDER

trl = pytest.importorskip("trl", reason="needs the extra: pip install 'demur[trl]'")
datasets = pytest.importorskip("datasets", reason="needs the extra: pip install 'demur[trl]'")

from demur.integrations import trl_rollout  # noqa: E402
from demur.integrations.trl_rollout import ObjectionRollout, objection_rows  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's and peft's own, in any run


class Checked:
    """A rollout whose log-probabilities are held against a plain forward pass, call by call."""

    def __init__(self, rollout: ObjectionRollout, within: float = 1e-4) -> None:
        self.rollout, self.played, self.within = rollout, list[dict[str, Any]](), within
        self.prompts = list[Any]()

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
        model = trainer.accelerator.unwrap_model(trainer.model)
        before = state_of(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FallbackWarning)
            out = self.rollout(prompts, trainer)
        assert state_of(model) == before, "the trainer's model is as it was"
        assert len(before["training"]) == 1 and before["attention"] == "sdpa"
        rows = zip(out["prompt_ids"], out["completion_ids"], out["logprobs"], strict=True)
        for prompt, ids, logprobs in rows:
            assert len(ids) == len(logprobs) > 0
            torch.testing.assert_close(
                torch.tensor(logprobs), forward(model, prompt, ids, trainer.temperature),
                atol=self.within, rtol=0,
            )  # fmt: skip
        self.prompts.append(prompts)
        self.played.append(copy.deepcopy(out))
        return out


def state_of(model: Any) -> dict[str, Any]:
    return {
        "training": {module.training for module in model.modules()},
        "attention": model.config._attn_implementation,
        "checkpointing": model.is_gradient_checkpointing,
        "device": model.device,
        "forward": vars(model).get("forward"),
        "grads": [p.requires_grad for p in model.parameters()],
    }


@torch.no_grad()
def forward(model: Any, prompt: list[int], ids: list[int], temperature: float) -> torch.Tensor:
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    for module, was in training:
        module.training = was
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs[torch.arange(len(ids)), torch.tensor(ids)]


@pytest.mark.parametrize("kind", ["messages", "text", "adapter", "bfloat16"])
def test_trl_trains_on_games_of_demur(exported: Rows, tmp_path: Path, kind: str) -> None:
    given: dict[str, Any] = {}
    if kind == "adapter":
        peft = pytest.importorskip("peft", reason="needs the extra: pip install 'demur[lora]'")
        given["peft_config"] = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    rows = [exported[0], exported[-1]]  # so that every step asks what the last one asked
    if kind == "text":  # a prompt is the key of its row, whatever it says
        rows = [row | {"prompt": row["task_id"]} for row in rows]
    bare = [{"prompt": row["prompt"]} for row in rows]  # the game brings all other columns
    functions, weights = reward_funcs(WEIGHTS, OPTIONS)
    half = kind == "bfloat16"
    rollout, watched = Checked(ObjectionRollout(rows), 0.2 if half else 1e-4), Watched()
    given["eval_dataset"] = datasets.Dataset.from_list(bare)
    more = {
        "reward_weights": [*weights, 0.0],
        "temperature": 0.8,
        "learning_rate": 3e-3,
        "bf16": half,
    }
    trainer = trainer_of(bare, tmp_path, [*functions, watched], more, rollout_func=rollout, **given)
    trainer.train()
    assert len(rollout.played) == len(watched.calls) == 3
    assert all(line["loss"] == line["loss"] for line in trainer.state.log_history if "loss" in line)
    different: list[int] = []
    by_prompt = {json.dumps(row["prompt"]): row for row in rows}
    policy = LocalPolicy.from_folder(SEED_FOLDER)
    for step, (prompts, out) in enumerate(zip(rollout.prompts, rollout.played, strict=True)):
        assert len(prompts) == 8 and prompts[:4] == [prompts[0]] * 4 != [prompts[4]] * 4
        for i, prompt in enumerate(prompts):
            row = by_prompt[json.dumps(prompt)]
            task, claim = draw_of(row["exchange"])
            assert claim is not None
            assert tuple(out["prompt_ids"][i]) == policy.prompt_ids(object_to(task, claim))
            ids = out["completion_ids"][i]
            body = ids[:-1] if ids[-1] in policy.stop_ids else ids
            assert out["reply_text"][i] == policy.tokenizer.decode(body)
            for name in ("task_id", "question", "truth", "grader", "claim", "claim_right"):
                assert out[name][i] == row[name] == watched.calls[step][name][i]
            assert len(ids) == 24 or ids[-1] in policy.stop_ids
        different.append(len({tuple(ids) for ids in out["completion_ids"][:4]}))
        verdicts = truth_says(out["reply_text"], watched.calls[step])
        paid = np.mean(totals(out["reply_text"], verdicts))
        assert logged(trainer, "reward")[step] == pytest.approx(paid, abs=1e-5)
        assert watched.calls[step]["completion_ids"] == out["completion_ids"]
    assert max(different) > 1, "equal prompts get replies of their own"
    trainer.evaluate()
    assert len(rollout.prompts[-1]) == 8
    verdicts = truth_says(rollout.played[-1]["reply_text"], rollout.played[-1])
    paid = np.mean(totals(rollout.played[-1]["reply_text"], verdicts))
    assert trainer.state.log_history[-1]["eval_reward"] == pytest.approx(paid, abs=1e-5)


def test_a_seed_repeats_the_games(exported: Rows, tmp_path: Path) -> None:
    def replies(seed: int) -> list[Any]:
        rollout = Checked(ObjectionRollout(exported))
        functions, _ = reward_funcs({"correctness": 1.0})
        more = {"seed": seed, "max_steps": 2, "max_completion_length": 8}
        trainer_of(exported[:2], tmp_path, functions, more, rollout_func=rollout).train()
        first, second = (played["completion_ids"] for played in rollout.played)
        assert first != second and max(map(len, first)) == 8
        return [first, second]

    assert replies(1) == replies(1) != replies(2)


def test_nothing_is_kept_of_weights_that_are_gone(tmp_path: Path) -> None:
    task = Task("sum/21+13?", "21+13?", "34", "sum", "number")
    earlier = LocalPolicy.from_folder(SEED_FOLDER).reply([ask(task)], 1, Sampling(0.0, 24))[0][0]
    again = Claim("self", "34", right=True, earlier=earlier.text)
    rows = objection_rows([(task, None), (task, again)])  # one prompt goes on from the other
    rollout = Checked(ObjectionRollout(rows))
    functions, _ = reward_funcs({"correctness": 1.0, "brier": 1.0})
    more = {"per_device_train_batch_size": 4, "shuffle_dataset": False, "max_steps": 2}
    learned = {"temperature": 0.5, "learning_rate": 3e-3}
    trainer_of(rows, tmp_path, functions, more | learned, rollout_func=rollout).train()
    first, second = rollout.played
    assert {*first["claim"]} == {None} and {*second["claim"]} == {"34"}
    assert earlier.text in first["reply_text"], "and its keys and values were known"
    assert len({*first["reply_text"]}) > 1, "so that there was something to learn"


@pytest.mark.parametrize("kind", ["disparity", "probability"])
def test_an_anchor_that_looks_at_tokens_judges_in_the_rollout(
    exported: Rows, tmp_path: Path, kind: str
) -> None:
    policy = LocalPolicy.from_folder(SEED_FOLDER)
    options = {} if kind == "disparity" else {"kind": kind}
    own = make_anchor("own_confidence", options, own=own_confidence(policy.pieces))
    rollout, watched = Checked(ObjectionRollout(exported, own)), Watched()
    functions, weights = reward_funcs({"correctness": 1.0})
    more = {"reward_weights": [*weights, 0.0], "max_steps": 1, "learning_rate": 1e-9}
    trainer = trainer_of(exported[:2], tmp_path, [*functions, watched], more, rollout_func=rollout)
    trainer.train()
    (out,) = rollout.played
    assert watched.calls[0]["verdict"] == out["verdict"]
    assert len(set(out["verdict"])) > 2, "neither 0 nor 1"
    assert logged(trainer, "reward") == [pytest.approx(np.mean(out["verdict"]), abs=1e-6)]


def test_a_prompt_without_room_gets_an_empty_reply_that_nothing_is_learned_from(
    tmp_path: Path,
) -> None:
    short = Task("a", "1+2?", "3", "sum", "number")
    draws: list[Draw] = [
        (short, Claim("user", "4", right=False)),
        (short, Claim("user", "4", right=False, text="So it is. " * 120)),
    ]
    rows = objection_rows([*draws, *draws])
    assert len(rows) == 2, "the same dialogue once"
    rollout, watched = ObjectionRollout(rows), Watched()
    functions, weights = reward_funcs({"correctness": 1.0, "format": 1.0})
    more = {"reward_weights": [*weights, 0.0], "max_steps": 1, "shuffle_dataset": False}
    played: list[dict[str, Any]] = []

    def kept(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        played.append(rollout(prompts, trainer))
        return dict(played[0])

    trainer = trainer_of(rows, tmp_path, [*functions, watched], more, rollout_func=kept)
    trainer.train()
    (columns,) = watched.calls
    long = [len(json.dumps(prompt)) > 1000 for prompt in columns["prompts"]]
    assert sum(long) == 4
    for i, cut in enumerate(long):
        mask = played[0]["env_mask"][i]
        assert mask == ([0] if cut else [1] * len(columns["completion_ids"][i]))
        assert (columns["reply_text"][i] == "") == cut
        assert len(played[0]["prompt_ids"][i]) < 1024, "no longer than the seed model reads"
    for f in functions:
        assert [v for v, cut in zip(f(**columns), long, strict=True) if cut] == [0.0] * 4
    assert trainer.state.log_history[0]["completions/min_length"] == 0.0, "not a token counts"


def test_rows_of_the_game_hold_all_of_an_exchange() -> None:
    task = Task("b", "2+2?", "4", "sum", "number", "file", ("3", "4"), "as 2 and 2 are 4", True)
    panel = Claim("peers", "3", 0.7, True, False, (("Ann", "3"), ("Bob", "4")), record=(7, 10))
    draws: list[Draw] = [(task, panel), (task, None)]
    rows = objection_rows(draws)
    assert [draw_of(row["exchange"]) for row in rows] == draws
    assert [row["prompt"] for row in rows] == [
        [{"role": m.role, "content": m.content} for m in d]
        for d in (object_to(task, panel), ask(task))
    ]
    assert [(row["claim"], row["claim_right"]) for row in rows] == [("3", False), (None, None)]
    assert all((row["truth"], row["grader"], row["family"]) == ("4", "number", "sum")
               for row in rows)  # fmt: skip


def test_a_game_that_cannot_be_played_is_one_sentence(
    exported: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="need the columns prompt and exchange: export"):
        ObjectionRollout([{"prompt": "x"}])
    other = draw_json(Task("c", "?", "5", "sum", "number"), None)
    with pytest.raises(ConfigError, match=r"two rows have the prompt .* keep one of them"):
        ObjectionRollout([exported[0], exported[0] | {"exchange": other}])
    one, same = (Task("c", "?", truth, "sum", "number") for truth in ("5", "6"))
    with pytest.raises(ConfigError, match=r"two rows have the prompt .* keep one of them"):
        objection_rows([(one, None), (same, None)])
    functions, _ = reward_funcs({"correctness": 1.0})
    rollout = ObjectionRollout(exported[:2])

    def refused(rows: Rows, more: dict[str, Any], match: str, **given: Any) -> None:
        trainer = trainer_of(rows, tmp_path, functions, more, rollout_func=rollout, **given)
        with pytest.raises(ConfigError, match=match):
            trainer.train()

    refused(exported[3:5], {}, "is of no row that the rollout was given; give it the rows")
    refused(exported[:2], {"top_p": 0.9, "top_k": 5}, "leave top_p, top_k out of GRPOConfig")
    refused(exported[:2], {"chat_template_kwargs": {"x": 1}}, "leave chat_template_kwargs out")
    peft = pytest.importorskip("peft", reason="needs the extra: pip install 'demur[lora]'")
    learned = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    refused(exported[:2], {}, "cannot play with learned prompts", peft_config=learned)
    spread = trainer_of(exported[:2], tmp_path, functions, rollout_func=rollout)
    spread.is_fsdp_enabled = True
    with pytest.raises(ConfigError, match="train without FSDP, or leave the rollout out"):
        rollout([exported[0]["prompt"]], spread)
    monkeypatch.setattr(trl_rollout, "is_deepspeed_zero3_enabled", lambda: True)
    spread.is_fsdp_enabled, spread.args.ds3_gather_for_generation = False, False
    with pytest.raises(ConfigError, match="leave ds3_gather_for_generation on, or leave the"):
        rollout([exported[0]["prompt"]], spread)
