"""demur's rewards and the objection game inside TRL's own GRPOTrainer."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from demur.anchors import make_anchor
from demur.anchors.approval import Approval
from demur.anchors.majority import Majority
from demur.config import load_recipe
from demur.errors import ConfigError, UnknownName
from demur.exports import export_trl
from demur.games.phrases import ask, object_to
from demur.games.rounds import Draw, draw_json, draw_of
from demur.integrations.trl import reward_func, reward_funcs, text_of
from demur.learners.confidence import own_confidence
from demur.policies.local import LocalPolicy
from demur.reply import parse, render
from demur.rewards import OUTCOME_REWARDS, REWARDS, make_parts, score
from demur.runlog import RunFolder
from demur.schema import Claim, Reply, Task
from demur.tasks.grader import same
from demur.train import train
from demur.world.seed import SEED_FOLDER

trl = pytest.importorskip("trl", reason="needs the extra: pip install 'demur[trl]'")
datasets = pytest.importorskip("datasets", reason="needs the extra: pip install 'demur[trl]'")

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from demur.integrations.trl_rollout import ObjectionRollout, objection_rows  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's and peft's own, in any run
WEIGHTS = {"correctness": 1.0, "brier": 0.5, "log": 0.25, "format": 0.125}
OPTIONS: dict[str, dict[str, object]] = {"brier": {"shifted": False}, "log": {"floor": 0.05}}
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of ``demur export --format trl-grpo`` of a short run of the seed model."""
    folder = tmp_path_factory.mktemp("trl")
    small = ("stages.0.dialogues=500", "stages.0.steps=1", "stages.0.batch=4", "tasks.pool=200")
    made = load_recipe("offline_pairs", small)
    run = RunFolder(folder / "run", {"seed": 3, "model": "seed", "recipe": made.model_dump()})
    train(made, LocalPolicy.from_folder(SEED_FOLDER), run, seed=3)
    export_trl(folder / "run", folder / "data", "trl-grpo")
    rows: Rows = pq.read_table(folder / "data" / "data" / "train.parquet").to_pylist()
    assert len(rows) > 8 and {row["claim_right"] for row in rows} == {True, False}
    return rows


class Watched:
    """What TRL called a reward with: paid 0 itself, so nothing is changed by it."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **columns: Any) -> list[float | None]:
        self.calls.append(columns)
        return [None] * len(columns["completions"])


def trainer_of(rows: Rows, out: Path, functions: Sequence[Any], more: Any = None, **given: Any):  # type: ignore[no-untyped-def]
    settings = {
        "output_dir": str(out), "max_steps": 3, "per_device_train_batch_size": 8,
        "num_generations": 4, "max_completion_length": 24, "learning_rate": 1e-3,
        "report_to": "none", "use_cpu": True, "save_strategy": "no", "bf16": False,
        "logging_steps": 1, "disable_tqdm": True, "seed": 1,
    } | (more or {})  # fmt: skip
    return trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(SEED_FOLDER),
        reward_funcs=list(functions),
        args=trl.GRPOConfig(**settings),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(SEED_FOLDER),
        **given,
    )


def totals(texts: Sequence[str], verdicts: Sequence[float | None]) -> list[float]:
    """What demur's own ``score`` pays."""
    parts = make_parts(WEIGHTS, OPTIONS)
    pairs = zip(texts, verdicts, strict=True)
    return [score(parse(t), v, WEIGHTS, parts, spans=False).total for t, v in pairs]


def truth_says(texts: Sequence[str], columns: dict[str, Any]) -> list[float | None]:
    said = zip(map(parse, texts), columns["truth"], columns["grader"], strict=True)
    return [
        None if t is None else float(isinstance(r, Reply) and same(r.answer, t, g))
        for r, t, g in said
    ]


def logged(trainer: Any, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if "loss" in line]


# -- rewards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("conversational", [True, False])
def test_trl_logs_what_demur_pays(exported: Rows, tmp_path: Path, conversational: bool) -> None:
    rows = exported
    if not conversational:
        template = AutoTokenizer.from_pretrained(SEED_FOLDER).apply_chat_template
        as_text = {"tokenize": False, "add_generation_prompt": True}
        rows = [row | {"prompt": template(row["prompt"], **as_text)} for row in rows]
    functions, weights = reward_funcs(WEIGHTS, OPTIONS)
    watched = Watched()
    given = {"reward_weights": [*weights, 0.0]}
    trainer = trainer_of(rows, tmp_path, [*functions, watched], given)
    trainer.train()
    assert len(watched.calls) == 3
    rewards = logged(trainer, "reward")
    for step, columns in enumerate(watched.calls):
        kinds = {type(completion) for completion in columns["completions"]}
        assert kinds == ({list} if conversational else {str})
        texts = [text_of(completion) for completion in columns["completions"]]
        verdicts = truth_says(texts, columns)
        assert rewards[step] == pytest.approx(np.mean(totals(texts, verdicts)), abs=1e-5)
        for name in WEIGHTS:
            part = make_parts({name: 1.0}, {k: v for k, v in OPTIONS.items() if k == name})[name]
            paid = [part(parse(t), v).value for t, v in zip(texts, verdicts, strict=True)]  # type: ignore[union-attr]
            mean = logged(trainer, f"rewards/demur_{name}/mean")[step]
            assert mean == pytest.approx(np.mean(paid), abs=1e-5)
    assert len(set(rewards)) > 1 and any(logged(trainer, "reward_std")), "replies differ"


def test_where_the_truth_is_not_known_trl_leaves_the_reply_out(
    exported: Rows, tmp_path: Path
) -> None:
    rows = [exported[0], exported[1] | {"truth": None}]
    functions, weights = reward_funcs({"correctness": 1.0, "brier": 1.0})
    watched = Watched()
    more = {"reward_weights": [*weights, 0.0], "max_steps": 2}
    trainer = trainer_of(rows, tmp_path, [*functions, watched], more)
    trainer.train()
    for step, columns in enumerate(watched.calls):
        assert columns["truth"].count(None) == 4 and len(columns["truth"]) == 8
        paid = {f.__name__: f(**columns) for f in functions}
        unknown = [truth is None for truth in columns["truth"]]
        for name, found in paid.items():
            assert [value is None for value in found] == unknown
            known = [value for value in found if value is not None]
            mean = logged(trainer, f"rewards/{name}/mean")[step]
            assert mean == pytest.approx(np.mean(known), abs=1e-6) and mean > 0
        both = [sum(pair) for pair in zip(*paid.values(), strict=True) if None not in pair]
        assert logged(trainer, "reward")[step] == pytest.approx(np.mean(both), abs=1e-6)


def test_messages_and_texts_are_paid_alike() -> None:
    texts = [render("12", 0.8), render("9", 0.9, "hm"), "<answer>12</answer>", ""]
    said = [[{"role": "assistant", "content": text}] for text in texts]
    typed = [[{"role": "assistant", "content": [{"type": "text", "text": t}]}] for t in texts]
    asked = [[{"role": "tool", "content": "x"}, *said[0], {"role": "tool", "content": "9"}]]
    columns = {"truth": ["12"] * 4, "grader": ["number"] * 4}
    for name in sorted(REWARDS.keys() - OUTCOME_REWARDS):
        f = reward_func(name)
        assert f.__name__ == f"demur_{name}"
        found = f(completions=texts, **columns)
        part = make_parts({name: 1.0})[name]
        assert found == [
            part(parse(t), v).value  # type: ignore[union-attr]
            for t, v in zip(texts, (1.0, 0.0, 0.0, 0.0), strict=True)
        ]
        assert f(completions=said, **columns) == f(completions=typed, **columns) == found
        assert f(completions=asked, truth=["12"], grader=["number"]) == found[:1]
        assert pickle.loads(pickle.dumps(f))(completions=texts, **columns) == found
    assert reward_func("format")(completions=texts) == [1.0, 1.0, 0.0, 0.0], "needs no column"
    spelt = [render("1,200", 1.0)]
    for grader, right in (("number", 1.0), ("exact", 0.0)):
        f = reward_func("correctness")
        assert f(completions=spelt, truth=["1200"], grader=[grader]) == [right]
    assert reward_func("brier", shifted=False)(completions=texts[:1], **_first(columns)) == [
        pytest.approx(-0.04)
    ]
    assert text_of([{"role": "assistant", "tool_calls": []}]) == text_of(None) == ""
    whole = {"reply_text": ["<answer>1<|end|>2</answer><confidence>1.0</confidence>"]}
    assert reward_func("correctness")(completions=texts[:1], **_first(columns), **whole) == [0.0]


def _first(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: values[:1] for name, values in columns.items()}


def test_verdicts_of_a_column_and_of_any_anchor(exported: Rows) -> None:
    brier, right = reward_func("brier"), reward_func("correctness")
    texts = [render("1", 0.5), render("2", 0.5), "nothing"]
    given = {"verdict": [0.25, None, 0.25], "truth": ["2"] * 3, "grader": ["number"] * 3}
    assert brier(completions=texts, **given) == [1 - 0.25**2, None, 0.0]
    assert right(completions=texts, **given) == [0.25, None, 0.0]
    for wrong in (1.5, math.nan, "yes"):
        with pytest.raises(ConfigError, match=r"the column 'verdict' holds .*or None to abstain"):
            right(completions=texts, verdict=[0.5, 0.5, wrong])

    one, other = (draw_of(row["exchange"]) for row in (exported[0], exported[-1]))
    assert one[1] is not None and other[1] is not None and one != other
    drawn = [one, other, one, other, one, (one[0], None)]
    said = [one[1].answer, "x", one[1].answer, "x", "y", "z"]
    told = {"exchange": [draw_json(*draw) for draw in drawn]}
    replies = [render(answer, 0.5) for answer in said]
    votes = reward_func("correctness", anchor=Majority())(completions=replies, **told)
    assert votes == [1.0, 1.0, 1.0, 1.0, 0.0, 1.0], "each exchange has a vote of its own"
    liked = Approval(agree=0.75, disagree=0.25)
    rated = reward_func("correctness", anchor=liked)(completions=replies, **told)
    assert rated == [0.75, 0.25, 0.75, 0.25, 0.25, None], "alone there is nobody to agree with"

    coin = make_anchor("random", rng=np.random.default_rng(5))
    (first, second), _ = reward_funcs({"correctness": 1.0, "brier": 1.0}, anchor=coin)
    batch = {"completions": [render("1", 1.0)] * 40, "exchange": told["exchange"][:1] * 40}
    tossed = first(**batch)
    assert set(tossed) == {0.0, 1.0} and second(**batch) == tossed, "one toss a reply"
    assert first(**{**batch, "completions": [render("2", 1.0)] * 40}) != tossed


def test_what_cannot_be_paid_is_one_sentence() -> None:
    for name in sorted(OUTCOME_REWARDS):
        with pytest.raises(ConfigError, match=f"{name} cannot be used here, as it pays a seat"):
            reward_func(name)
    with pytest.raises(ConfigError, match="learnability cannot be used here"):
        reward_funcs({"correctness": 1.0, "learnability": 1.0})
    with pytest.raises(UnknownName, match="did you mean 'brier'"):
        reward_func("brierr")
    with pytest.raises(UnknownName, match="unknown option of reward 'brier' 'floor'"):
        reward_func("brier", floor=0.1)
    with pytest.raises(ConfigError, match=r"floor must lie between 0 and 0\.5"):
        reward_funcs({"correctness": 1.0, "log": 1.0}, {"log": {"floor": 0.7}})
    with pytest.raises(ConfigError, match="failing on purpose"):
        reward_funcs({"correctness": 0.5, "brier": 1.0})
    with pytest.raises(ConfigError, match="options are given for reward 'log', which has no"):
        reward_funcs({"correctness": 1.0}, {"log": {"floor": 0.1}})
    said = {"completions": [render("1", 1.0)]}
    for lacks, has in (("truth", {"grader": ["exact"]}), ("grader", {"truth": ["1"]})):
        with pytest.raises(ConfigError, match=rf"no column '{lacks}' \(.*\): add it, or export"):
            reward_func("correctness")(**said, **has)
    with pytest.raises(ConfigError, match=r"no column 'exchange' \(.*--format trl-grpo"):
        reward_func("correctness", anchor=Majority())(**said, truth=["1"], grader=["exact"])
    with pytest.raises(ConfigError, match="holds no task and claim; export the run again"):
        reward_func("correctness", anchor=Majority())(**said, exchange=['{"task": {}}'])
    with pytest.raises(UnknownName, match="unknown grader 'exakt'"):
        reward_func("correctness")(**said, truth=["1"], grader=["exakt"])


# -- the game -------------------------------------------------------------------------------------


class Checked:
    """A rollout whose log-probabilities are held against a plain forward pass, call by call."""

    def __init__(self, rollout: ObjectionRollout) -> None:
        self.rollout, self.played = rollout, list[dict[str, Any]]()
        self.prompts = list[Any]()

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
        model = trainer.accelerator.unwrap_model(trainer.model)
        before = state_of(model)
        out = self.rollout(prompts, trainer)
        assert state_of(model) == before, "the trainer's model is as it was"
        assert len(before["training"]) == 1 and before["attention"] == "sdpa"
        rows = zip(out["prompt_ids"], out["completion_ids"], out["logprobs"], strict=True)
        for prompt, ids, logprobs in rows:
            assert len(ids) == len(logprobs) > 0
            torch.testing.assert_close(
                torch.tensor(logprobs), forward(model, prompt, ids, trainer.temperature),
                atol=1e-4, rtol=0,
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


@pytest.mark.parametrize("kind", ["messages", "text", "adapter"])
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
    rollout, watched = Checked(ObjectionRollout(rows)), Watched()
    given["eval_dataset"] = datasets.Dataset.from_list(bare)
    more = {"reward_weights": [*weights, 0.0], "temperature": 0.8, "learning_rate": 3e-3}
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
        more = {"seed": seed, "max_steps": 2, "gradient_checkpointing": False}
        trainer_of(exported[:2], tmp_path, functions, more, rollout_func=rollout).train()
        first, second = (played["completion_ids"] for played in rollout.played)
        assert first != second
        return [first, second]

    assert replies(1) == replies(1) != replies(2)


def test_an_anchor_that_looks_at_tokens_judges_in_the_rollout(
    exported: Rows, tmp_path: Path
) -> None:
    policy = LocalPolicy.from_folder(SEED_FOLDER)
    own = make_anchor("own_confidence", {"kind": "probability"}, own=own_confidence(policy.pieces))
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


def test_a_game_that_cannot_be_played_is_one_sentence(exported: Rows, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need the columns prompt and exchange: export"):
        ObjectionRollout([{"prompt": "x"}])
    other = draw_json(Task("c", "?", "5", "sum", "number"), None)
    with pytest.raises(ConfigError, match=r"two rows have the prompt .* keep one of them"):
        ObjectionRollout([exported[0], exported[0] | {"exchange": other}])
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
