"""Advantages, token spans and samples against what can be counted by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from tiny import byte_policy, tiny_policy

from demur.games.rounds import read
from demur.learners.advantage import group_advantages, token_advantages
from demur.learners.samples import expected_score, make_samples, token_spans
from demur.policies.local import LocalPolicy
from demur.reply import render
from demur.rewards import make_parts, score
from demur.schema import Completion, Component, Episode, Group, Reward, Span, Task, Turn, Unparsed

TASK = Task("t", "2+2?", "4", "sum", "number")
POLICY = tiny_policy()
A, C, REST = "answer", "confidence", "all"


def completion(text: str, policy: LocalPolicy = POLICY) -> Completion:
    """A reply as the policy would have drawn it, with the token that ends the turn."""
    end = policy.tokenizer.eos_token_id
    ids = (*policy.tokenizer(text, add_special_tokens=False)["input_ids"], end)
    return Completion(text, tuple(ids), tuple(-0.1 * t for t in range(len(ids))), prompt_ids=(1, 2))


def spans_of(text: str, policy: LocalPolicy = POLICY) -> list[tuple[str, Span]]:
    said = completion(text, policy)
    pieces = policy.pieces(said.token_ids)
    assert "".join(pieces) == text
    return list(zip(pieces, token_spans(said, read(said), policy.pieces), strict=True))


def group_of(*texts: str) -> Group:
    episodes = tuple(
        Episode(TASK, None, (Turn("responder", (), said, read(said)),))
        for said in map(completion, texts)
    )
    return Group(TASK, None, episodes)


# -- advantages -----------------------------------------------------------------------------------


def pay(value: float, span: Span = "all") -> Reward:
    return Reward({"correctness": Component(value, span)}, {"correctness": 1.0})


def test_the_baseline_is_the_mean_of_those_who_were_paid() -> None:
    got = group_advantages([pay(1.0), pay(0.0), None, pay(0.5)])["all"]
    np.testing.assert_allclose(got, [0.5, -0.5, np.nan, 0.0])
    divided = group_advantages([pay(1.0), pay(0.0), None, pay(0.5)], "mean_std")["all"]
    spread = math.sqrt((0.25 + 0.25 + 0) / 3) + 1e-6
    np.testing.assert_allclose(divided, [0.5 / spread, -0.5 / spread, np.nan, 0.0])


def test_every_span_has_its_own_baseline() -> None:
    weights = {"correctness": 2.0, "brier": 0.5}
    both = [
        Reward({"correctness": Component(1.0, "answer"), "brier": Component(0.9, C)}, weights),
        Reward({"correctness": Component(0.0, "answer"), "brier": Component(0.1, C)}, weights),
        Reward({"correctness": Component(0.0, "answer")}, weights),
    ]
    got = group_advantages(both)
    assert set(got) == {A, C}
    np.testing.assert_allclose(got["answer"], [4 / 3, -2 / 3, -2 / 3])
    np.testing.assert_allclose(got["confidence"], [0.2, -0.2, np.nan], atol=1e-12)


@pytest.mark.parametrize("baseline", ["mean", "mean_std"])
@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 0.0, -0.3])
def test_equal_rewards_give_exactly_no_advantage(baseline: str, value: float) -> None:
    for size in (1, 3, 7, 10):
        got = group_advantages([pay(value)] * size, baseline)["all"]  # type: ignore[arg-type]
        assert got.tolist() == [0.0] * size


def test_advantages_of_tokens() -> None:
    assert token_advantages([REST, A, C, A], {"answer": 2.0, "all": 0.5}) == (0.5, 2.5, 0.5, 2.5)
    assert token_advantages([A, C, REST], {"confidence": -1.0}) == (0.0, -1.0, 0.0)


# -- spans ----------------------------------------------------------------------------------------


def test_spans_over_the_seed_models_tokens() -> None:
    assert spans_of(render("42", 0.7)) == [
        ("<answer>", REST),
        ("4", A),
        ("2", A),
        ("</answer>", A),  # it decides where the answer ends
        ("<confidence>", REST),
        ("0.7", C),
        ("</confidence>", REST),
        ("", REST),  # the token that ends the turn
    ]


def test_a_thought_is_paid_as_a_whole() -> None:
    spans = spans_of(render("home", 1.0, thought="<answer>no</answer> 0.3"))
    assert [s for _, s in spans] == [A] * (1 + 1 + 2 + 1 + 1 + 1 + 1 + 1 + 5) + [
        REST,
        C,
        REST,
        REST,
    ]


def test_white_space_and_text_between() -> None:
    spans = spans_of("<answer> 4</answer>so <confidence>0.75</confidence>!")
    assert spans == [
        ("<answer>", REST),
        (" ", A),
        ("4", A),
        ("</answer>", A),
        ("s", REST),
        ("o", REST),
        (" ", REST),
        ("<confidence>", REST),
        ("0.7", C),
        ("5", C),
        ("</confidence>", REST),
        ("!", REST),
        ("", REST),
    ]


def test_an_unread_reply_is_one_span() -> None:
    for text in ("<answer>4</answer>", "", "<answer></answer><confidence>0.5</confidence>"):
        said = completion(text)
        assert isinstance(read(said), Unparsed)
        assert token_spans(said, read(said), POLICY.pieces) == [REST] * len(said.token_ids)


def test_spans_over_parts_of_characters() -> None:
    """Byte-level tokens: every part of a character of the answer belongs to the answer."""
    policy = byte_policy()
    text = "é <answer>日本 4</answer>ü<confidence>0.5</confidence>"
    spans = spans_of(text, policy)
    answered = [i for i, (_, span) in enumerate(spans) if span == A]
    assert answered == list(range(answered[0], answered[-1] + 1)), "one unbroken run"
    assert "".join(spans[i][0] for i in answered).startswith("日本 4")
    start = len(policy.tokenizer("é <answer>", add_special_tokens=False)["input_ids"])
    assert answered[0] == start, "the first byte of the answer chooses it as much as the last"
    assert len(answered) >= 6 + 2 + 1  # six bytes, " 4" and the token that closes
    assert "".join(piece for piece, span in spans if span == C) == "0.5"


# -- the expected score ---------------------------------------------------------------------------


def score_of(text: str, verdict: float | None = 1.0, weight: float = 0.5) -> object:
    said = completion(text)
    spans = token_spans(said, read(said), POLICY.pieces)
    return expected_score(said, spans, verdict, POLICY.level_ids, weight)


def test_the_expected_score_is_the_brier_loss_of_every_level() -> None:
    text = render("42", 0.7)
    term = expected_score(
        completion(text),
        token_spans(completion(text), read(completion(text)), POLICY.pieces),
        0.25,
        POLICY.level_ids,
        0.5,
    )
    assert term is not None and term.position == 5 and term.weight == 0.5
    assert completion(text).token_ids[5] == term.level_ids[7]
    assert term.losses == pytest.approx([(k / 10 - 0.25) ** 2 for k in range(11)])
    assert POLICY.tokenizer.convert_ids_to_tokens(list(term.level_ids)) == [
        f"{k / 10:.1f}" for k in range(11)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<answer>4</answer><confidence>0.75</confidence>",  # a level and a digit
        "<answer>4</answer><confidence>70%</confidence>",
        "<answer>4</answer><confidence> 0.7</confidence>",
        "<answer>4</answer><confidence>1</confidence>",  # one token, but no level
        "<answer>4</answer>0.7",  # not read at all
    ],
)
def test_no_expected_score_where_no_single_level_states_the_confidence(text: str) -> None:
    assert score_of(text) is None


def test_no_expected_score_without_a_verdict_a_weight_or_levels() -> None:
    text = render("4", 0.7)
    assert score_of(text) is not None
    assert score_of(text, verdict=None) is None
    assert score_of(text, weight=0.0) is None
    said = completion(text)
    spans = token_spans(said, read(said), POLICY.pieces)
    assert expected_score(said, spans, 1.0, None, 0.5) is None


# -- samples --------------------------------------------------------------------------------------

WEIGHTS = {"correctness": 1.0, "brier": 0.5}


def paid(group: Group, verdicts: Sequence[float | None], spans: bool = True) -> list[Reward]:
    parts = make_parts(WEIGHTS)
    return [
        score(e.reply, v, WEIGHTS, parts, spans)
        for e, v in zip(group.episodes, verdicts, strict=True)
    ]


def test_samples_carry_credit_by_span() -> None:
    group = group_of(render("4", 0.7), render("5", 0.2))
    (first, second) = make_samples(
        [group], [[1.0, 0.0]], [paid(group, [1.0, 0.0])], pieces=POLICY.pieces
    )
    brier = 0.5 * ((1 - 0.3**2) - (1 - 0.2**2)) / 2
    #             <answer> 4    </answer> <confidence> 0.7  </confidence> end
    assert first.advantages == pytest.approx((0, 0.5, 0.5, 0, brier, 0, 0))
    assert second.advantages == pytest.approx((0, -0.5, -0.5, 0, -brier, 0, 0))
    said = group.episodes[0].turns[-1].completion
    assert (first.prompt_ids, first.completion_ids) == (said.prompt_ids, said.token_ids)
    assert first.logprobs == said.logprobs
    assert first.group == 0 and first.seat == "responder" and first.expected_score is None


def test_without_spans_every_token_is_paid_the_same() -> None:
    group = group_of(render("4", 0.7), render("5", 0.2))
    rewards = paid(group, [1.0, 0.0], spans=False)
    samples = make_samples([group], [[1.0, 0.0]], [rewards], pieces=POLICY.pieces)
    half = (rewards[0].total - rewards[1].total) / 2
    assert samples[0].advantages == pytest.approx((half,) * 7)


def test_an_expected_score_takes_the_place_of_the_sampled_one() -> None:
    group = group_of(render("4", 0.7), render("5", 0.2), "<answer>4</answer>")
    verdicts = [1.0, 0.0, 0.0]
    samples = make_samples(
        [group],
        [verdicts],
        [paid(group, verdicts)],
        pieces=POLICY.pieces,
        level_ids=POLICY.level_ids,
        score_weight=0.25,
    )
    assert [s.expected_score is not None for s in samples] == [True, True, False]
    assert samples[0].advantages[4] == 0.0
    assert samples[0].advantages[1] == pytest.approx(2 / 3)


def test_flat_groups_are_dropped() -> None:
    flat = group_of(*[render("4", 0.7)] * 3)
    live = group_of(render("4", 0.7), render("5", 0.2))
    verdicts = [[1.0] * 3, [1.0, 0.0]]
    rewards = [paid(g, v) for g, v in zip((flat, live), verdicts, strict=True)]
    samples = make_samples([flat, live], verdicts, rewards, pieces=POLICY.pieces)
    assert [s.group for s in samples] == [1, 1]
    scored = make_samples(
        [flat, live], verdicts, rewards,
        pieces=POLICY.pieces, level_ids=POLICY.level_ids, score_weight=1.0,
    )  # fmt: skip
    assert [s.group for s in scored] == [0, 0, 0, 1, 1], "a flat group still has its confidence"


def test_abstentions_and_empty_replies_are_left_out() -> None:
    group = group_of(render("4", 0.7), render("5", 0.2), render("6", 0.1))
    none: list[float | None] = [None, None, None]
    for score_weight in (0.0, 1.0):
        assert not make_samples(
            [group], [none], [paid(group, none)],
            pieces=POLICY.pieces, level_ids=POLICY.level_ids, score_weight=score_weight,
        )  # fmt: skip
    some = [1.0, None, 0.0]
    for rewards in (paid(group, some), [paid(group, some)[0], None, paid(group, some)[2]]):
        samples = make_samples([group], [some], [rewards], pieces=POLICY.pieces)
        assert [s.completion_ids[1] for s in samples] == [
            group.episodes[i].turns[-1].completion.token_ids[1] for i in (0, 2)
        ]
        assert samples[0].advantages[1] == pytest.approx(0.5)
    silent = Completion("", stop="length", prompt_ids=(1,))
    said = group.episodes[0]
    mute = Episode(TASK, None, (Turn("responder", (), silent, read(silent)),))
    mixed = Group(TASK, None, (said, mute))
    (sample,) = make_samples([mixed], [[1.0, 0.0]], [paid(mixed, [1.0, 0.0])], pieces=POLICY.pieces)
    assert sample.completion_ids == said.turns[-1].completion.token_ids
    assert sample.advantages[1] == pytest.approx(0.5), "the silent one is still in the mean"
