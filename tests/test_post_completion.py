"""Post-completion learning: assessments after the reply, at no token of inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import byte_policy, stopped_at, tiny_policy
from transformers import AutoModelForCausalLM

from demur.anchors import judge_round, make_anchor
from demur.config import check_recipe, load_recipe
from demur.errors import ConfigError, UnknownName
from demur.evaluate import evaluate
from demur.exchanges import STUDY, build_suite
from demur.games import make_game
from demur.games.phrases import ask
from demur.games.post_completion import after
from demur.learners.imitate import imitations
from demur.learners.policy_gradient import PolicyGradient, Supervised
from demur.learners.samples import make_samples
from demur.measure import summarise
from demur.meters import batch_stats
from demur.policies.local import LocalPolicy, VocabularyWarning
from demur.recipe import PolicyGradient as StageOfPlay
from demur.recipe import Recipe
from demur.reply import POST_COMPLETION, read_assessment, render, render_assessment
from demur.results import write_transcripts
from demur.rewards import make_parts
from demur.rewards.self_assessment import VARIANTS
from demur.schema import (
    Assessment,
    Claim,
    Completion,
    Component,
    Dialogue,
    Episode,
    Group,
    Message,
    Reward,
    Sample,
    Sampling,
    Task,
    Turn,
    Unparsed,
)
from demur.stages import Till
from demur.tasks.source import ClaimSettings

SUM = Task("s", "2+2?", "4", "sum", "number")
WRONG = Claim("user", "5", 0.5, right=False)
SAMPLING = Sampling(1.0, 32, 0)
RIGHT, BAD = (
    "<self_assessment>1.0 1.0</self_assessment>",
    "<self_assessment>0.2 1.0</self_assessment>",
)


class Candid:
    """Answers 4, 5, nothing and without end, and says afterwards how it went."""

    name = "candid"

    def __init__(self) -> None:
        self.asked: list[Dialogue] = []

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        out = []
        for dialogue in dialogues:
            if dialogue[-1].role == "assistant":
                self.asked.append(dialogue)
                text = RIGHT if "<answer>4" in dialogue[-1].content else BAD
                out.append([Completion(text, (7,), (-0.1,), prompt_ids=(1,))])
                continue
            said = [render("4", 0.9), render("5", 0.9), "nothing", "<answer>4"]
            stops = ("stop", "stop", "stop", "length")
            rows = zip(said[:n], stops, strict=False)
            out.append([Completion(t, (2, 3), (-0.1, -0.1), s, (1,)) for t, s in rows])  # type: ignore[arg-type]
        return out


def play(draws: Sequence[tuple[Task, Claim | None]] = ((SUM, None),)) -> list[Group]:
    return make_game("post_completion")(Candid(), list(draws), 4, SAMPLING)


# -- the game -------------------------------------------------------------------------------------


def test_a_reply_is_assessed_after_it_has_ended() -> None:
    policy = Candid()
    draws = [(SUM, None), (SUM, WRONG)]
    first, second, one, two = make_game("post_completion")(policy, draws, 4, SAMPLING)
    assert [g.seat for g in (first, second, one, two)] == ["responder"] * 2 + ["assessor"] * 2
    assert (one.about, two.about, first.about) == (0, 1, None)
    assert [e.turns[0] for e in two.episodes] == [e.turns[0] for e in second.episodes]
    said = [e.reply for e in one.episodes]
    assert said[:3] == [
        Assessment(1.0, 1.0, True),
        Assessment(0.2, 1.0, True),
        Assessment(0.2, 1.0, False),
    ]
    assert isinstance(said[3], Unparsed) and "had no end" in said[3].reason
    assert len(policy.asked) == 6, "what never ended is not gone on from"
    assert policy.asked[0][:-1] == ask(SUM)
    assert policy.asked[0][-1] == Message("assistant", render("4", 0.9) + POST_COMPLETION)


def test_an_assessment_has_the_verdict_of_its_reply() -> None:
    groups = play()
    verdicts = judge_round(make_anchor("truth"), groups)
    assert verdicts == [[1.0, 0.0, 0.0, 0.0]] * 2
    stage = load_recipe("pcl").stages[1]
    rewards = Till(stage).pay(groups, verdicts)  # type: ignore[arg-type]
    assert [r.total for r in rewards[1]] == pytest.approx(
        [1.0, 1 - 0.04 / 2, 1 - (0.04 + 1) / 2, 0.0]
    )
    stats = batch_stats(groups, verdicts, rewards)
    assert stats["coverage"] == 0.5 and stats["assessor/valid"] == 0.75
    assert (stats["assessor/said_of_right"], stats["assessor/said_of_wrong"]) == (1.0, 0.2)
    samples = make_samples(groups, verdicts, rewards, pieces=lambda ids, _: [""] * len(ids))
    assert sorted({s.seat for s in samples}) == ["assessor", "responder"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<self_assessment>0.8 1.0</self_assessment>", (0.8, 1.0)),
        ("It holds. <self_assessment> 80% 1 </self_assessment> yes", (0.8, 1.0)),
        ("<self_assessment>0.1 0.2</self_assessment><self_assessment>1 1</self_assessment>",
         (0.1, 0.2)),
        ("<self_assessment>0.8</self_assessment>", None),
        ("<self_assessment>0.8 1.0 1.0</self_assessment>", None),
        ("<self_assessment>nan 1.0</self_assessment>", None),
        ("<self_assessment>2 1.0</self_assessment>", None),
        ("<self_assessment>0.8 1.0", None),
        ("__import__('os')", None),
        ("", None),
    ],
)  # fmt: skip
def test_assessments_are_read_and_never_run(text: str, found: tuple[float, float] | None) -> None:
    assert read_assessment(text) == found
    if found is not None:
        assert read_assessment(render_assessment(*found)) == found


# -- what it is paid ------------------------------------------------------------------------------


def pay(variant: str, verdict: float, right: float, fmt: float = 1.0, read: bool = True) -> float:
    part = make_parts({"self_assessment": 1.0}, {"self_assessment": {"variant": variant}})
    component = part["self_assessment"](Assessment(right, fmt, read), verdict)
    assert component is not None
    return component.value


def test_the_prices_of_an_assessment() -> None:
    assert set(VARIANTS) == {"brier", "absolute", "released"}
    assert pay("brier", 1.0, 0.7) == pytest.approx(1 - 0.09 / 2)
    assert pay("absolute", 1.0, 0.7, 0.5) == pytest.approx(1 - (0.3 + 0.5) / 2)
    assert pay("released", 1.0, 0.5, 0.5) == pytest.approx(1 - (0.5 + 0.5) / 2)
    part = make_parts({"self_assessment": 1.0})["self_assessment"]
    assert (
        part(Unparsed("no"), 1.0) == Component(0.0) and part(Assessment(1, 1, True), None) is None
    )
    with pytest.raises(UnknownName, match="variant of self_assessment"):
        pay("Brier", 1.0, 1.0)


def test_the_released_price_teaches_to_claim_success_and_the_others_do_not() -> None:
    for p in (0.1, 0.3, 0.5, 0.7, 0.9):  # P(the reply is right)

        def worth(q: float, variant: str, p: float = p) -> float:
            return p * pay(variant, 1.0, q) + (1 - p) * pay(variant, 0.0, q)

        levels = [k / 10 for k in range(11)]
        best = {v: max(levels, key=lambda q: worth(q, v)) for v in VARIANTS}
        assert best["brier"] == p, "proper: honesty pays best"
        assert best["released"] > 0.9, "claiming success pays best, however unlikely it is"
        assert best["absolute"] == (0.0 if p < 0.5 else 1.0) or p == 0.5
    assert pay("released", 0.0, 0.0) == 0.0 < pay("released", 0.0, 1.0)


# -- tokens ---------------------------------------------------------------------------------------


def seed() -> LocalPolicy:
    return LocalPolicy.from_folder(Path(__file__).parents[1] / "src/demur/world/seed_model", "seed")


def test_inference_emits_not_one_token_more() -> None:
    """A policy that was taught to assess its replies stops where it stopped before."""
    policy = seed()
    assert policy.post_id is not None and policy.post_id in policy.stop_ids
    dialogues = [(Message("user", f"{a}+{b}?"),) for a, b in ((31, 12), (50, 49), (7, 120))]
    greedy = Sampling(0.0, 40, 0)
    before = [row[0] for row in policy.reply(dialogues, 1, greedy)]
    policy.optimise(2e-3)
    lessons = []
    for i, (dialogue, said) in enumerate(zip(dialogues, before, strict=True)):
        whole = (*dialogue, Message("assistant", said.text + POST_COMPLETION))
        for asked, text in ((dialogue, said.text + POST_COMPLETION),
                            (whole, render_assessment(0.3, 1.0))):  # fmt: skip
            prompt, ids = policy.encode(asked, text)
            lessons.append(Sample(prompt, ids, (), (1.0,) * len(ids), i))
    for _ in range(40):
        policy.update(lessons, Supervised())
    now = [row[0] for row in policy.reply(dialogues, 1, greedy)]
    for old, new in zip(before, now, strict=True):
        assert new.text == old.text and new.stop == "stop"
        assert new.token_ids[:-1] == old.token_ids[:-1]
        assert new.token_ids[-1] == policy.post_id != old.token_ids[-1]
        assert len(new.token_ids) == len(old.token_ids)
    asked = [
        (*dialogue, Message("assistant", said.text + POST_COMPLETION))
        for dialogue, said in zip(dialogues, now, strict=True)
    ]
    for dialogue, new, (said,) in zip(asked, now, policy.reply(asked, 1, greedy), strict=True):
        assert said.prompt_ids == (*new.prompt_ids, *new.token_ids), "it goes on from its reply"
        assert read_assessment(said.text) == (0.3, 1.0)
        assert dialogue[-1].content.endswith(POST_COMPLETION)


@pytest.mark.parametrize("spare", [0, 10])
def test_a_model_without_the_token_is_given_it(tmp_path: Path, spare: int) -> None:
    policy = byte_policy(spare)
    assert policy.post_id is None
    before = policy.model.get_input_embeddings().weight.detach().clone()
    with pytest.warns(VocabularyWarning, match="had no token <post_completion>"):
        policy.learn_post_completion()
    assert policy.post_id is not None and policy.post_id in policy.stop_ids
    after_ = policy.model.get_input_embeddings().weight
    assert torch.equal(after_[: len(before)], before)
    rows = max(len(before), len(policy.tokenizer))
    assert len(after_) == rows and policy.model.config.vocab_size == rows
    assert torch.allclose(after_[len(before) :], before.mean(0))
    assert policy.pieces([policy.post_id]) == [""], "a token that ends a turn adds no text"
    _, ids = policy.encode((Message("user", "1+1?"),), "2" + POST_COMPLETION)
    assert ids[-1] == policy.post_id
    policy.learn_post_completion()
    assert len(policy.model.get_input_embeddings().weight) == rows, "it has it now"
    policy.save(tmp_path)
    again = LocalPolicy.from_folder(tmp_path)
    assert again.post_id == policy.post_id and again.stop_ids == policy.stop_ids
    asked = [(Message("user", "1+1?"),)]
    assert again.reply(asked, 3, SAMPLING) == [
        [replace(c, policy_version=0) for c in row] for row in policy.reply(asked, 3, SAMPLING)
    ]


@pytest.mark.filterwarnings("ignore::demur.policies.local.VocabularyWarning")
def test_a_run_on_a_model_without_the_token_is_stopped_and_resumed(tmp_path: Path) -> None:
    lines = stopped_at(2, small(), partial(byte_policy, 0), tmp_path, seed=4)
    assert lines[0]["assessor/valid"] == 0.0


def test_other_engines_stop_at_the_token_too(tmp_path: Path) -> None:
    """What generate makes of a saved folder ends where the reply ends."""
    policy = seed()
    dialogue = (Message("user", "31+12?"),)
    [[said]] = policy.reply([dialogue], 1, Sampling(0.0, 40, 0))
    _, ids = policy.encode(dialogue, said.text + POST_COMPLETION)
    policy.optimise(2e-3)
    for _ in range(20):
        policy.update([Sample(said.prompt_ids, ids, (), (1.0,) * len(ids), 0)], Supervised())
    policy.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = torch.tensor([said.prompt_ids])
    out = model.generate(prompt, max_new_tokens=40, do_sample=False)[0, len(said.prompt_ids) :]
    assert tuple(out.tolist()) == ids and len(ids) == len(said.token_ids)


# -- the supervised track -------------------------------------------------------------------------


class Voice:
    """Notes what it is asked to put into tokens."""

    level_ids = None

    def __init__(self) -> None:
        self.said: list[tuple[Dialogue, str]] = []

    def encode(self, dialogue: Dialogue, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        self.said.append((dialogue, text))
        return (1,), (2, 3)

    def pieces(self, ids: Sequence[int], text: str | None = None) -> list[str]:
        return [""] * len(ids)


def test_right_replies_and_assessments_by_the_rules_are_imitated() -> None:
    groups = play([(SUM, None), (SUM, WRONG)])
    verdicts = judge_round(make_anchor("truth"), groups)
    voice = Voice()
    samples = imitations(groups, verdicts, voice, 0.5, 0.25)
    assert [(s.seat, s.advantages, s.logprobs) for s in samples] == [
        ("responder", (0.5, 0.5), ()),
        ("assessor", (0.25, 0.25), ()),
    ] * 2
    replies = [text for _, text in voice.said[::2]]
    assert replies == [render("4", 0.9) + POST_COMPLETION] * 2, "never the one that is wrong"
    assessed = [text for _, text in voice.said[1::2]]
    assert assessed == [render_assessment(1 / 3, 1.0)] * 2, "one of the three that came to an end"
    assert voice.said[3][0] == after(groups[1].episodes[1])
    assert imitations(groups, verdicts, Voice(), 0.0, 0.0) == []
    abstained = [[None] * 4] * 4
    assert imitations(groups, abstained, Voice(), 1.0, 1.0) == []


def test_a_sample_without_behaviour_is_imitated_at_its_weight() -> None:
    """Its policy gradient is that of its likelihood, whatever the clip."""
    sample = Sample((5, 6), (7, 8, 9), (), (0.5,) * 3, 0)
    grads = []
    for loss in (PolicyGradient(clip=0.01, normalise="bnpo"), Supervised()):
        policy = tiny_policy()
        policy.optimise(0.0, max_grad_norm=1e9)
        policy.update([sample], loss)
        found = [p.grad.clone() for p in policy.model.parameters() if p.grad is not None]
        grads.append(found)
    for a, b in zip(*grads, strict=True):  # supervised divides by its weights, 1.5; bnpo by 3
        assert torch.allclose(a, 0.5 * b, atol=1e-7)


class Levels:
    """Tokens 10 to 20 are the levels 0.0 to 1.0; any other is one character of its own."""

    level_ids = tuple(range(10, 21))

    def __call__(self, ids: Sequence[int], _: str | None) -> list[str]:
        return [f"{(i - 10) / 10:.1f}" if i in self.level_ids else "x" for i in ids]


@pytest.mark.parametrize(
    ("variant", "verdict", "best"),
    [("brier", 0.0, {0}), ("brier", 1.0, {10}), ("brier", 0.3, {3}), ("absolute", 0.3, {3}),
     ("released", 1.0, {10}), ("released", 0.0, set(range(1, 11)))],
)  # fmt: skip
def test_an_assessor_learns_from_what_every_level_would_have_paid(
    variant: str, verdict: float, best: set[int]
) -> None:
    said = Completion("", (1, 13, 2, 20, 3), (-0.1,) * 5, "stop", (9,))
    turn = Turn("assessor", (), said, Assessment(0.3, 1.0, True))
    group = Group(SUM, None, (Episode(SUM, None, (turn,)),) * 2, about=0)
    stage = small(seats={"assessor": {
        "rewards": {"self_assessment": 1.0},
        "reward_options": {"self_assessment": {"variant": variant}},
        "advantage": "mean",
        "expected_score": 2.0,
    }}).stages[0]  # fmt: skip
    assert isinstance(stage, StageOfPlay)
    till = Till(stage)
    verdicts = [[verdict] * 2]
    rewards = till.pay([group], verdicts)
    levels = Levels()
    made = partial(make_samples, [group], verdicts, pieces=levels, level_ids=levels.level_ids)
    assert made(rewards) == [], "both were paid alike"
    samples = made(rewards, losses=till.losses)
    assert len(samples) == 2
    term = samples[0].expected_score
    assert term is not None and term.position == 1 and term.level_ids == levels.level_ids
    paid = rewards[0][0].total
    assert term.losses[3] == pytest.approx(-2.0 * paid), "at the level that it did say"
    found = {k for k, loss in enumerate(term.losses) if loss == pytest.approx(min(term.losses))}
    assert found == best
    uneven = [[rewards[0][0], Reward({"self_assessment": Component(0.0)}, {"self_assessment": 1})]]
    first = made(uneven, losses=till.losses)[0]
    assert first.advantages == pytest.approx((paid / 2, 0.0, *[paid / 2] * 3))
    abstained = make_samples(
        [group], [[None] * 2], rewards, pieces=levels, level_ids=levels.level_ids,
        losses=till.losses,
    )  # fmt: skip
    assert abstained == []
    assert make_samples([group], verdicts, rewards, pieces=levels, losses=till.losses) == []


# -- recipes, runs and measures -------------------------------------------------------------------


def small(**stage: object) -> Recipe:
    table = load_recipe("pcl").model_dump(exclude_none=True)
    table["tasks"] |= {"pool": 12, "private_samples": 2, "max_tokens": 8}
    del table["stages"][0]
    table["stages"][0] |= {"steps": 4, "prompts": 3, "group": 3, **stage}
    return check_recipe({**table, "checkpoint_every": 1})


def test_a_stopped_run_is_the_run_that_was_not(tmp_path: Path) -> None:
    lines = stopped_at(2, small(), seed, tmp_path, seed=4)
    assert "assessor/valid" in lines[0]


def test_imitation_belongs_to_its_game() -> None:
    for key in ("imitate", "imitate_assessment"):
        with pytest.raises(ConfigError, match="imitate needs game"):
            check_recipe(
                {"name": "x", "stages": [{"kind": "policy_gradient", "game": "solo", key: 0.5}]}
            )


def test_assessments_are_measured(tmp_path: Path) -> None:
    tasks = [SUM, replace(SUM, id="t", question="1+3?")]
    suite = build_suite(tasks, replace(STUDY, user=1, peers=0), ClaimSettings(), {}, 0, k=4)
    found = evaluate(Candid(), suite, assess=True)
    rows = {k: [row[k] for row in found.rows] for k in found.rows[0]}
    assert {r["kind"]: r["assessed"] for r in found.rows if r["kind"] != "sham"} == {
        "alone": 1.0,
        "claim": 1.0,
    }
    rows["reply_right"] = [i % 2 == 0 for i in range(len(found.rows))]
    rows["assessed"] = [(0.9, 0.4)[i % 2] for i in range(len(found.rows))]
    rows["assessed"][1] = None
    metrics, _ = summarise(rows, resamples=10)
    assert metrics["assessment_accuracy"].mean == 1.0 and metrics["assessment_auroc"].mean == 1.0
    assert metrics["assessment_brier_wrong"].mean == pytest.approx(0.16)
    assert metrics["assessment_coverage"].mean == pytest.approx(3 / 4)
    write_transcripts(found, tmp_path)
    plain = evaluate(Candid(), suite)
    assert "assessed" not in plain.rows[0]
    metrics, missing = summarise(
        {k: [row[k] for row in plain.rows] for k in plain.rows[0]}, resamples=10
    )
    assert "assessment_auroc" not in metrics
    assert missing["assessment_auroc"] == "the column assessed is missing"
