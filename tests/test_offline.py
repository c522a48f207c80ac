"""Data kept from play: which replies, in which proportions, and the runs that learn from them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from contracts import make_group
from tiny import stopped_at, tiny_policy

from demur.anchors import judge_round, make_anchor
from demur.config import check_recipe, load_recipe
from demur.errors import ConfigError, RunFolderError, TrainingError, UnknownName
from demur.evaluate import evaluate
from demur.exchanges import STUDY, build_suite
from demur.games.phrases import ask
from demur.learners.confidence import KINDS, own_confidence, span_confidence
from demur.learners.offline import (
    as_rows,
    as_units,
    from_rows,
    keep_pairs,
    keep_right,
    keep_surest,
)
from demur.learners.preference import Preference
from demur.learners.samples import answer_tokens
from demur.measure import summarise
from demur.policies.local import LocalPolicy
from demur.recipe import Recipe
from demur.reply import parse, render
from demur.runlog import RunFolder
from demur.schema import Completion, Episode, Group, Message, Reply, Sampling, Task, Unparsed
from demur.stages import label_shares
from demur.tasks.source import ClaimSettings, Source, world_tasks
from demur.train import train
from demur.world.seed import SEED_FOLDER

RNG = np.random.default_rng(0)


def played(answers: Sequence[str | None], claim: str | None, id: str = "t1") -> Group:
    """A group of replies with token ids of their own."""
    group = make_group(answers, claim=claim, id=id)
    if group.claim is not None:
        group = replace(group, claim=replace(group.claim, right=group.claim.answer == "4"))
    episodes = []
    for i, (episode, answer) in enumerate(zip(group.episodes, answers, strict=True)):
        text = "" if answer is None else render(answer, 0.7)
        said = Completion(text, (i + 1,), (-0.1,), "stop", (9,))
        turn = replace(episode.turns[0], completion=said, reply=parse(text))
        episodes.append(replace(episode, claim=group.claim, turns=(turn,)))
    return replace(group, episodes=tuple(episodes))


def judged(groups: Sequence[Group]) -> list[list[float | None]]:
    return judge_round(make_anchor("truth"), groups)


# -- what is kept ---------------------------------------------------------------------------------


def test_a_right_reply_is_kept_whoever_said_what() -> None:
    groups = [
        played(["5", "4", None], "5", "wrong claim"),
        played(["4", "6"], "4", "right claim"),
        played(["5", "6"], None, "none right"),
        played([None, "4"], None, "alone"),
    ]
    kept = keep_right(groups, judged(groups), RNG)
    assert [(k.chosen.task.id, k.side, k.verdict) for k in kept] == [
        ("wrong claim", "resist", 1.0),
        ("right claim", "accept", 1.0),
        ("alone", "alone", 1.0),
    ]
    assert all(k.rejected is None for k in kept)


def test_pairs_are_balanced_between_resisting_and_accepting() -> None:
    resist = [played(["4", "5"], "5", f"r{i}") for i in range(5)]
    accept = [played(["4", "6", "4"], "4", f"a{i}") for i in range(2)]
    alone, agreed = [played(["4", "7"], None, "n")], [played(["4", "4"], "5", "same")]
    groups = [*resist, *accept, *alone, *agreed]
    for balance, wanted in (
        ("both", {"resist": 2, "accept": 2}),
        ("resist", {"resist": 5}),
        ("accept", {"accept": 2}),
        ("none", {"resist": 5, "accept": 2, "alone": 1}),
    ):
        kept = keep_pairs(groups, judged(groups), np.random.default_rng(1), balance)  # type: ignore[arg-type]
        sides = [k.side for k in kept]
        assert {s: sides.count(s) for s in set(sides)} == wanted
        for k in kept:
            assert k.rejected is not None
            answers = [e.reply.answer for e in (k.chosen, k.rejected)]  # type: ignore[union-attr]
            assert answers[0] == "4" != answers[1]


def test_an_abstaining_anchor_and_unread_replies_give_no_pair() -> None:
    groups = [played(["4", None], "5"), played(["4", "5"], "5")]
    assert keep_pairs(groups, [[1.0, 0.0], [None, None]], RNG, "none") == []


def test_the_surer_answer_is_preferred_if_it_is_sure_enough() -> None:
    group = played(["4", "5", "4.0", None, "6"], None)
    sure = (0.95, 0.5, 0.92, None, 0.1)

    def look(episode: Episode) -> float | None:
        return sure[next(i for i, e in enumerate(group.episodes) if e is episode)]

    kept = keep_surest([group], look, threshold=0.9)
    found = {(k.chosen.reply.answer, k.rejected.reply.answer) for k in kept if k.rejected}  # type: ignore[union-attr]
    assert found == {("4", "5"), ("4", "6"), ("4.0", "5"), ("4.0", "6")}, "4 and 4.0 are the same"
    first = next(k for k in kept if k.chosen is group.episodes[0])
    assert first.margin == pytest.approx(math.exp(0.95 - 0.5))
    assert keep_surest([group], look, threshold=0.96) == []
    assert all(k.margin == 0 for k in keep_surest([group], look, 0.9, margin=False))


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    groups = [played(["4", "5"], "5", "a"), played(["5", "4"], "4", "b")]
    run = RunFolder(tmp_path / "run", {"x": 1})
    for kept in (
        keep_pairs(groups, judged(groups), RNG),
        keep_right(groups, judged(groups), RNG),
    ):
        units = as_units(kept, lambda ids, _: [""] * len(ids))
        path = run.table("offline-0.parquet", as_rows(kept, units))
        assert from_rows(run.read_table("offline-0.parquet")) == units
        table = pq.read_table(path).to_pylist()
        assert [row["side"] for row in table] == [k.side for k in kept]
        assert json.loads(table[0]["dialogue"]) == []
    path.write_bytes(b"torn")
    with pytest.raises(RunFolderError, match="cannot go on without it"):
        run.read_table("offline-0.parquet")


def test_the_confidence_beside_a_right_answer_is_not_imitated() -> None:
    policy = tiny_policy()
    text = "<answer>42</answer><confidence>0.9</confidence>"
    prompt, ids = policy.encode((Message("user", "6*7?"),), text)
    said = Completion(text, ids, (0.0,) * len(ids), "stop", prompt)
    group = played(["4"], None)
    turn = replace(group.episodes[0].turns[0], completion=said, reply=parse(text))
    kept = keep_right([replace(group, episodes=(replace(group.episodes[0], turns=(turn,)),))],
                      [[1.0]], RNG)  # fmt: skip
    for stated in (False, True):
        ((sample,),) = as_units(kept, policy.pieces, stated)
        weights = dict(zip(policy.pieces(ids), sample.advantages, strict=True))
        assert weights["0.9"] == float(stated)
        assert all(w == 1.0 for piece, w in weights.items() if piece != "0.9")


def test_a_margin_has_to_be_exceeded() -> None:
    policy = tiny_policy()
    policy.optimise(1e-9)
    policy.keep_reference()
    groups = [played(["4", "5"], "5")]
    kept = [replace(k, margin=2.0) for k in keep_pairs(groups, judged(groups), RNG, "none")]
    samples = [s for unit in as_units(kept, policy.pieces) for s in unit]
    for weight in (0.0, 0.5):
        loss = policy.update(samples, Preference(beta=0.2, weight=weight))["loss"]
        assert loss == pytest.approx(math.log(1 + math.exp(weight * 2.0)), rel=1e-4)


# -- confidence of the answer's tokens ------------------------------------------------------------


def forward(policy: LocalPolicy, said: Completion) -> torch.Tensor:
    """Probabilities (tokens, V) at every completion token, by a forward pass."""
    ids = torch.tensor([[*said.prompt_ids, *said.token_ids]])
    with torch.inference_mode():
        logits = policy.model(ids, use_cache=False).logits[0]
    start = len(said.prompt_ids) - 1
    return logits[start : start + len(said.token_ids)].softmax(-1)


def test_branches_take_the_first_tokens_in_turn_and_go_on_greedily() -> None:
    policy = tiny_policy()
    dialogues = [(Message("user", t),) for t in ("1+1?", "12+30?", "pet of bakot?")]
    sampling = Sampling(0.0, 6, 0, "<answer>", branch=True, gaps=True)
    rows = policy.reply(dialogues, 5, sampling)
    opening = policy.tokenizer("<answer>", add_special_tokens=False)["input_ids"]
    for row in rows:
        first = []
        for said in row:
            assert said.text.startswith("<answer>")
            assert list(said.token_ids[: len(opening)]) == opening
            p = forward(policy, said)
            at = len(opening)
            first.append(said.token_ids[at])
            best = p[at].topk(5).indices.tolist()
            for t in range(at + 1, len(said.token_ids)):
                assert said.token_ids[t] == int(p[t].argmax()), "greedy after the first token"
            for t in range(at, len(said.token_ids)):
                mine = float(p[t, said.token_ids[t]])
                others = p[t].clone()
                others[said.token_ids[t]] = 0.0
                assert said.gaps[t] == pytest.approx(mine - float(others.max()), abs=1e-5)
                assert said.logprobs[t] == pytest.approx(math.log(mine), abs=1e-4)
            assert said.gaps[:at] == (0.0,) * at
        assert first == best
    assert policy.reply(dialogues, 5, replace(sampling, seed=9)) == rows, "nothing is drawn"
    plain = policy.reply(dialogues, 2, Sampling(1.0, 6, 0))
    assert all(said.gaps == () for row in plain for said in row)


def test_the_same_branches_whatever_the_batch() -> None:
    policy, small = tiny_policy(), tiny_policy()
    small._sample_tokens = 60
    dialogues = [(Message("user", t),) for t in ("1+1?", "12+30?")]
    sampling = Sampling(0.0, 6, 0, branch=True)
    found = [[c.token_ids for row in p.reply(dialogues, 7, sampling) for c in row]
             for p in (policy, small)]  # fmt: skip
    assert found[0] == found[1]


def test_confidence_of_the_answers_own_tokens() -> None:
    text = "<think>1</think><answer>42</answer><confidence>0.9</confidence>"
    ids = tuple(range(8))
    parts = ["<think>", "1", "</think>", "<answer>", "4", "2", "</answer>", "<confidence>0.9"]

    def pieces(_: Sequence[int], __: str | None) -> list[str]:
        return parts

    said = Completion(text, ids, tuple(math.log(p) for p in (1, 1, 1, 1, 0.5, 0.8, 1, 1)),
                      gaps=(1, 1, 1, 1, 0.1, 0.7, 1, 1))  # fmt: skip
    reply = parse(text)
    assert answer_tokens(said, reply, pieces) == [4, 5]
    wanted = {"disparity": 0.4, "probability": 0.65, "sequence": 0.4}
    assert set(wanted) == set(KINDS)
    for kind, value in wanted.items():
        assert span_confidence(said, reply, pieces, kind) == pytest.approx(value)
    low = replace(said, gaps=(0.0,) * 4 + (-0.3, 0.1) + (0.0,) * 2)
    assert span_confidence(low, reply, pieces) == 0.0
    assert span_confidence(said, Unparsed("no"), pieces) is None
    with pytest.raises(ConfigError, match="sampled with gaps"):
        span_confidence(replace(said, gaps=()), reply, pieces)
    with pytest.raises(ConfigError, match="gives log-probabilities"):
        span_confidence(replace(said, logprobs=()), reply, pieces)
    with pytest.raises(UnknownName, match="unknown confidence 'entropy'"):
        span_confidence(said, reply, pieces, "entropy")


def test_evaluation_looks_at_the_answers_own_tokens() -> None:
    policy = LocalPolicy.from_folder(SEED_FOLDER)
    tasks = world_tasks(("sum", "fact"), "test", 6, np.random.default_rng(0))
    suite = build_suite(tasks, replace(STUDY, user=1, peers=0), ClaimSettings(), {}, 0, k=2)
    found = evaluate(policy, suite, own=own_confidence(policy.pieces))
    for row in found.rows:
        value = row["token_confidence"]
        assert (value is not None) == row["parsed"] and 0.0 <= value <= 1.0
        said = parse(row["reply_text"])
        assert isinstance(said, Reply)
        dialogue = tuple(Message(**m) for m in json.loads(row["dialogue"]))
        prompt, ids = policy.encode(dialogue, row["reply_text"])
        logits = policy.model(torch.tensor([[*prompt, *ids]])).logits.detach()[0, len(prompt) - 1 :]
        best = logits[:-1].softmax(-1).topk(2).values
        tokens = answer_tokens(Completion(row["reply_text"], ids), said, policy.pieces)
        gaps = [float(best[t, 0] - best[t, 1]) for t in tokens]
        assert value == pytest.approx(sum(gaps) / len(gaps), abs=1e-4)
    right = [float(i % 2 == 0) for i in range(len(found.rows))]
    table = found.table() | {"reply_right": right, "token_confidence": right}
    metrics, _ = summarise(table, resamples=10)
    for end in ("", "_alone"):
        assert metrics[f"token_ece{end}"].mean == 0.0 and metrics[f"token_auroc{end}"].mean == 1.0
    metrics, missing = summarise(evaluate(policy, suite).table(), resamples=10)
    assert "token_ece" not in metrics and "token_confidence is missing" in missing["token_ece"]


def test_own_confidence_is_an_anchor_without_labels() -> None:
    policy = tiny_policy()
    task = Task("t", "1+1?", "2", "sum", "number")
    anchor = make_anchor(
        "own_confidence", own=lambda c, r, kind: span_confidence(c, r, policy.pieces, kind)
    )
    text = "<answer>2</answer><confidence>0.9</confidence>"
    prompt, ids = policy.encode(ask(task), text)
    said = Completion(text, ids, (-0.1,) * len(ids), "stop", prompt, gaps=(0.25,) * len(ids))
    group = played(["4"], None)
    turn = replace(group.episodes[0].turns[0], completion=said, reply=parse(text))
    read = replace(group.episodes[0], turns=(turn,))
    unread = replace(read, turns=(replace(turn, reply=Unparsed("no")),))
    assert anchor.judge(replace(group, episodes=(read, unread))) == [pytest.approx(0.25), 0.0]
    assert anchor.judge(replace(group, episodes=(unread,))) == [None]
    assert (anchor.budget, anchor.outside) == (0, False)


# -- recipes and runs -----------------------------------------------------------------------------


def small(name: str, **stage: object) -> Recipe:
    table = load_recipe(name).model_dump(exclude_none=True)
    table["tasks"] |= {"pool": 12, "private_samples": 2, "max_tokens": 8}
    table["stages"][-1] |= {"steps": 3, **stage}
    return check_recipe({**table, "checkpoint_every": 1})


def speaking() -> LocalPolicy:
    """The seed model: an untrained one writes nothing that could be kept."""
    return LocalPolicy.from_folder(Path(__file__).parents[1] / "src/demur/world/seed_model", "seed")


@pytest.mark.parametrize("name", ["offline_pairs", "offline_supervised", "offline_resist", "rlsf"])
def test_a_stopped_run_reads_its_rows_back(tmp_path: Path, name: str) -> None:
    recipe = small(name, dialogues=300, group=8, batch=8)
    lines = stopped_at(2, recipe, speaking, tmp_path, seed=1)
    rows = pq.read_table(tmp_path / "broken/offline-0.parquet").to_pylist()
    assert lines[0]["rows"] == len(rows) > 0
    if name == "offline_pairs":
        assert lines[0]["rows/resist"] == lines[0]["rows/accept"] == len(rows) / 2
    if name == "rlsf":
        assert lines[0]["anchor_budget"] == 0 and min(r["verdict"] for r in rows) >= 0.9
    else:
        assert 0 < lines[0]["anchor_budget"] <= 300, "a label is bought once a task"


def test_nothing_to_keep_is_said_before_any_step(tmp_path: Path) -> None:
    recipe = small("offline_pairs", dialogues=5, group=2, max_tokens=4)
    with pytest.raises(TrainingError, match=r"none gave a row to keep .* balance = 'both'"):
        train(recipe, tiny_policy(), RunFolder(tmp_path / "run", {"x": 1}))
    assert not (tmp_path / "run/metrics.jsonl").exists()
    few = small("offline_supervised", dialogues=8, group=4)
    with pytest.warns(RuntimeWarning, match=r"only \d+ rows were kept of 8 dialogues"):
        train(few, speaking(), RunFolder(tmp_path / "few", {"x": 1}))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"keep": "pairs", "group": 1}, "group must be 2 or more"),
        ({"keep": "pairs", "game": "solo"}, "nobody claims anything here"),
        ({"keep": "pairs", "balance": "resist", "alone_share": 1.0}, "nobody claims anything"),
        ({"keep": "left"}, "keep"),
        ({"anchor": "oracle"}, "unknown anchor 'oracle'"),
        ({"game": "propose"}, "game"),
        ({"anchor": "approval", "anchor_options": {"agree": 2.0}}, r"approval\.agree"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_recipe({"name": "x", "stages": [{"kind": "offline", **table}]})


def test_without_labels_a_share_is_taken_as_it_is() -> None:
    source = Source([], ClaimSettings(), {})
    shares = label_shares(source, 0, RNG)
    assert [float(shares(s)) for s in (0.0, 0.4, 1.0)] == pytest.approx([0.0, 0.4, 1.0])
