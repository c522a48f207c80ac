"""demur's rewards inside TRL's own GRPOTrainer."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpo import OPTIONS, WEIGHTS, Rows, Watched, logged, totals, trainer_of, truth_says
from transformers import AutoTokenizer

from demur.anchors import judge_round, make_anchor
from demur.anchors.approval import Approval
from demur.anchors.majority import Majority
from demur.errors import ConfigError, UnknownName
from demur.games.propose import Propose
from demur.games.rounds import draw_json, draw_of
from demur.integrations.trl import NoAssessmentWarning, reward_func, reward_funcs, text_of
from demur.policies.local import LocalPolicy
from demur.reply import POST_COMPLETION, parse, render, render_assessment
from demur.rewards import OUTCOME_REWARDS, REWARDS, make_parts
from demur.rewards.learnability import VARIANTS
from demur.schema import Sampling, Task
from demur.world.questions import recognise
from demur.world.seed import SEED_FOLDER

pytest.importorskip("trl", reason="needs the extra: pip install 'demur[trl]'")

from demur.integrations.trl_rollout import _borrowed

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own, in any run


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
            paid = [part(parse(t), v).value for t, v in zip(texts, verdicts, strict=True)]
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
            part(parse(t), v).value for t, v in zip(texts, (1.0, 0.0, 0.0, 0.0), strict=True)
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


def test_an_assessment_is_paid_against_the_verdict_on_the_reply_before_it() -> None:
    reply, failed, sure = render("12", 0.8), "<answer>12", render_assessment(0.9, 1.0)
    texts = [
        reply + POST_COMPLETION + sure,
        render("9", 0.8) + POST_COMPLETION + sure,
        failed + POST_COMPLETION + render_assessment(0.1, 0.2),
        f"<think>{sure}</think>{reply}",  # nothing is said after it
        "hm" + POST_COMPLETION + reply + sure,  # nor is an answer there one
        reply + POST_COMPLETION + sure,
    ]
    columns = {"truth": ["12"] * 5 + [None], "grader": ["number"] * 6}
    functions, weights = reward_funcs({"correctness": 1.0, "self_assessment": 0.5, "format": 0.25})
    right, assessed, read = functions
    assert weights == [1.0, 0.5, 0.25]
    assert assessed(completions=texts, **columns) == [
        pytest.approx(1 - 0.1**2 / 2),
        pytest.approx(1 - 0.9**2 / 2),
        pytest.approx(1 - (0.1**2 + 0.2**2) / 2),
        0.0,
        pytest.approx(1 - (0.9**2 + 1.0) / 2),
        None,
    ]
    assert right(completions=texts, **columns) == [1.0, 0.0, 0.0, 1.0, 0.0, None]
    assert read(completions=texts, **columns) == [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    released = pickle.loads(pickle.dumps(reward_func("self_assessment", variant="released")))
    assert released(completions=texts[1:2], **_first(columns)) == [0.5], "claiming success pays"
    tokenizer = AutoTokenizer.from_pretrained(SEED_FOLDER)
    ids = tokenizer(texts[0], add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == texts[0], "TRL does not drop the end"


def test_where_nothing_can_be_assessed_is_said() -> None:
    f = reward_func("self_assessment")
    ended = [render("12", 0.8) + POST_COMPLETION, render("12", 0.8)]
    columns = {"truth": ["12"] * 2, "grader": ["number"] * 2}
    with pytest.warns(NoAssessmentWarning, match=r"generation_config\.eos_token_id"):
        assert f(completions=ended, **columns) == [0.0, 0.0]
    with pytest.raises(ConfigError, match="ends with the reply: leave the rollout or the reward"):
        f(completions=ended, game=["objection"] * 2, **columns)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_question_is_paid_by_how_its_answers_came_out(variant: str) -> None:
    texts = ["<answer>7*8?</answer>"] * 5 + ["7*8?", "<answer>7*8?</answer>"]
    shares = [0.0, 0.25, 0.5, 0.75, 1.0, None, None]
    f = reward_func("learnability", n=4, variant=variant)
    expected: list[float | None] = [VARIANTS[variant](k, 4) for k in range(5)]
    assert f(completions=texts, verdict=shares) == [*expected, None, None]
    (again,), _ = reward_funcs(
        {"learnability": 1.0}, {"learnability": {"n": 4, "variant": variant, "unread": -0.1}}
    )
    again = pickle.loads(pickle.dumps(again))
    assert again(completions=texts, verdict=shares) == [*expected, -0.1, None]


def test_trl_trains_a_seat_that_asks(tmp_path: Path) -> None:
    """A rollout has the questions answered, and forwards how that came out."""
    propose, n = Propose(recognise, kept=lambda task: False, memory=False), 4
    shares: list[list[float | None]] = []

    def ask(prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
        draws = [(Task("topic/a sum", "a sum", None, "topic"), None)] * len(prompts)
        with _borrowed(trainer) as model:
            policy = LocalPolicy(model, AutoTokenizer.from_pretrained(SEED_FOLDER))
            asked, *answered = propose(policy, draws, n, Sampling(1.0, 24, 7))
        said = [episode.turns[-1].completion for episode in asked.episodes]
        verdicts = judge_round(Majority(), answered)
        right = [float(np.mean(verdicts[i - 1])) if i is not None else None for i in asked.led]
        shares.append(right)
        return {
            "prompt_ids": [list(c.prompt_ids) for c in said],
            "completion_ids": [list(c.token_ids) for c in said],
            "logprobs": [list(c.logprobs) for c in said],
            "verdict": right,
        }

    functions, weights = reward_funcs(
        {"learnability": 1.0}, {"learnability": {"n": n, "variant": "variance"}}
    )
    rows = [{"prompt": [{"role": "user", "content": "Ask a sum."}]}]
    more = {"reward_weights": weights, "max_steps": 2, "num_generations": 8}
    trainer = trainer_of(rows, tmp_path, functions, more, rollout_func=ask)
    trainer.train()
    for step, right in enumerate(shares):
        paid = [4 * share * (1 - share) for share in right if share is not None]
        assert len(paid) > 2, "the seed model asks questions that can be answered"
        assert logged(trainer, "reward")[step] == pytest.approx(np.mean(paid), abs=1e-6)
    assert len({share for right in shares for share in right}) > 1, "of different worth"
    assert all(logged(trainer, "grad_norm")), "and so there is something to learn"


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
    again = first(**batch)
    assert first(**batch) != again, "the same replies in a later step are tossed for again"


def test_what_cannot_be_paid_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="learnability pays a question and correctness a reply"):
        reward_funcs({"correctness": 1.0, "learnability": 1.0}, {"learnability": {"n": 8}})
    for n in (None, True, "8"):
        with pytest.raises(ConfigError, match=r"give it n, as in reward_func\('learnability', n=8"):
            reward_func("learnability", n=n)
    with pytest.raises(ConfigError, match="needs two answers a question or more, not 1"):
        reward_func("learnability", n=1)
    with pytest.raises(UnknownName, match="did you mean 'r_zero'"):
        reward_func("learnability", n=4, variant="rzero")
    with pytest.raises(ConfigError, match="leave the anchor out, and forward the share"):
        reward_func("learnability", n=4, anchor=Majority())
    asked = {"completions": ["<answer>1+2?</answer>"], "truth": ["3"], "grader": ["number"]}
    with pytest.raises(ConfigError, match="in a rollout_func, and forward it as the column"):
        reward_func("learnability", n=4)(**asked)
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
