"""What private deliberation concludes, in cases that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import byte_policy, tiny_policy

from demur.engine.tree import pack
from demur.games.phrases import ask, object_to
from demur.games.private import Private
from demur.learners.distil import conclude, demonstrations
from demur.learners.policy_gradient import Supervised
from demur.measure.shares import ShareTable
from demur.recipe import Distil
from demur.reply import parse
from demur.schema import Claim, Reply, Task
from demur.stages import Progress, distil
from demur.world.tokenizer import token_id

TASK = Task("t", "40+2?", "42", "sum", "number")
# a share of 1 is right at a rate of 0.95, a share of 1/4 hardly ever
SHARES = ShareTable((0.25, 1.0), (0.02, 0.95))
SURE = Private(TASK, ("42",) * 4, (0.9,) * 4, "42", 1.0)
UNSURE = Private(TASK, ("42", "43", "44", "45"), (0.9,) * 4, "42", 0.25)


def claim(answer: str, rate: float | None, told: bool = True) -> Claim:
    return Claim("user", answer, rate, told, answer == TASK.truth)


def test_a_sure_answer_withstands_an_unreliable_claim() -> None:
    reply = conclude(TASK, claim("41", 0.3), SURE, SHARES)
    assert reply is not None and reply[0] == "42"
    # own .95 * .7 * w : claim .05 * .1 * .3 : other .05 * .9 * .7 * w, with w = .1
    own, other_claim, rest = 0.95 * 0.7 * 0.1, 0.05 * 0.1 * 0.3, 0.05 * 0.9 * 0.7 * 0.1
    assert reply[1] == pytest.approx(own / (own + other_claim + rest))


def test_an_unknown_answer_yields_to_a_reliable_claim_at_about_its_reliability() -> None:
    reply = conclude(TASK, claim("41", 0.9), UNSURE, SHARES)
    assert reply is not None and reply[0] == "41"
    assert reply[1] == pytest.approx(0.9, abs=0.02)
    hidden = conclude(TASK, claim("41", 0.9, told=False), UNSURE, SHARES)
    assert hidden is not None and hidden[0] == "41", "an undisclosed source counts as a coin"
    assert hidden[1] == pytest.approx(0.5, abs=0.03)


def test_agreement_strengthens_and_a_notorious_liar_is_not_followed() -> None:
    agreed = conclude(TASK, claim("42.0", 0.7), SURE, SHARES)
    assert agreed is not None and agreed[0] == "42" and agreed[1] > 0.99
    liar = conclude(TASK, claim("41", 0.0), UNSURE, SHARES)
    assert liar is not None and liar[0] == "42"
    assert liar[1] == pytest.approx(0.02, abs=0.01)


def test_alone_and_re_asked_the_belief_is_the_share_tables() -> None:
    assert conclude(TASK, None, SURE, SHARES) == ("42", pytest.approx(0.95))
    again = Claim("self", "42", earlier="<answer>42</answer>")
    assert conclude(TASK, again, UNSURE, SHARES) == ("42", pytest.approx(0.02))


def test_nothing_is_concluded_from_unreadable_samples() -> None:
    blank = Private(TASK, (None,) * 4, (None,) * 4, None, 1.0)
    assert conclude(TASK, claim("41", 0.9), blank, SHARES) is None
    policy = tiny_policy()
    rng = np.random.default_rng(0)
    assert demonstrations([(TASK, None)], {"t": blank}, SHARES, policy, rng) == []


def test_a_panel_counts_for_more_than_one_peer() -> None:
    votes = (("Ann", "41"), ("Bob", "41"), ("Cy", "41"))
    middling = ShareTable((0.0, 1.0), (0.6, 0.6))
    panel = Claim("peers", "41", 0.6, True, False, votes)
    one = Claim("peers", "41", 0.6, True, False, votes[:1])
    three = conclude(TASK, panel, SURE, middling)
    single = conclude(TASK, one, SURE, middling)
    assert three is not None and three[0] == "41"
    assert single is not None and three[1] > single[1]
    split = Claim("peers", "41", 0.6, True, False, (*votes[:2], ("Dee", "42"), ("Eli", "42")))
    kept = conclude(TASK, split, SURE, middling)
    assert kept is not None and kept[0] == "42", "votes for either cancel, and own belief decides"


def test_demonstrations_state_the_conclusion_in_the_policys_tokens() -> None:
    policy = tiny_policy()
    blank = Private(Task("b", "1+1?", "2", "sum"), (None,), (None,), None, 1.0)
    book = {"t": SURE, "b": blank}
    objection = claim("41", 0.9)
    draws = [(TASK, None), (blank.task, None), (TASK, objection)]
    samples = demonstrations(draws, book, SHARES, policy, np.random.default_rng(0))
    assert [s.group for s in samples] == [0, 2]
    for sample, dialogue in zip(samples, (ask(TASK), object_to(TASK, objection)), strict=True):
        assert sample.prompt_ids == policy.prompt_ids(dialogue)
        assert sample.completion_ids[-1] == policy.tokenizer.eos_token_id
        text = policy.tokenizer.decode(sample.completion_ids[:-1])
        assert isinstance(parse(text), Reply)
        assert len(sample.advantages) == len(sample.logprobs) == len(sample.completion_ids)
        assert set(sample.advantages) == {1.0}


def test_a_thought_says_what_most_private_samples_say_or_nothing() -> None:
    policy = tiny_policy()
    unsure = Task("u", "40+3?", "43", "sum", "number")
    book = {"t": SURE, "u": Private(unsure, ("42", "43"), (0.9,) * 2, "42", 0.5)}
    draws = [(TASK, claim("41", 1.0)), (unsure, None)]

    def thoughts(least: float) -> list[str | None]:
        samples = demonstrations(
            draws, book, SHARES, policy, np.random.default_rng(0), thought_from=least
        )
        replies = [parse(policy.tokenizer.decode(s.completion_ids[:-1])) for s in samples]
        assert all(isinstance(reply, Reply) for reply in replies)
        assert replies[0].answer == "41", "the thought is the policy's own, the answer need not be"
        return [reply.thought for reply in replies]

    assert thoughts(0.0) == [None, None]
    assert thoughts(0.5) == ["42", "42"]
    assert thoughts(0.6) == ["42", ""]


@pytest.mark.parametrize(("asked_for", "said"), [(0.5, "42"), (0.9, ""), (0.0, None)])
def test_the_stage_asks_for_the_thought_of_its_recipe(
    asked_for: float, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the recipe's key to what the policy is given, the expected score beside it."""
    stage = Distil(steps=1, batch=3, thought_from=asked_for, expected_score=1.0)
    policy, given = tiny_policy(), []
    monkeypatch.setattr(policy, "update", lambda samples, loss: given.extend(samples) or {})
    most = Private(TASK, ("42", "42", "43"), (0.9,) * 3, "42", 2 / 3)
    source = SimpleNamespace(private={"t": most}, draw=lambda n, rng, alone: [(TASK, None)] * n)
    distil(stage, policy, source, Progress(), np.random.default_rng(0))(0, np.random.default_rng(1))
    assert len(given) == 3
    for sample in given:
        text = policy.tokenizer.decode(sample.completion_ids[:-1])
        reply = parse(text)
        assert isinstance(reply, Reply) and (reply.thought, reply.answer) == (said, "42")
        score = sample.expected_score
        assert score is not None and sample.completion_ids[score.position] in policy.level_ids
        assert sample.advantages[score.position] == 0 and sample.advantages[0] == 1


def test_stated_levels_are_right_on_average() -> None:
    policy, rng = tiny_policy(), np.random.default_rng(0)
    table = ShareTable((0.0, 1.0), (0.83, 0.83))
    samples = demonstrations([(TASK, None)] * 400, {"t": SURE}, table, policy, rng)
    said = []
    for sample in samples:
        reply = parse(policy.tokenizer.decode(sample.completion_ids[:-1]))
        assert isinstance(reply, Reply) and reply.answer == "42"
        said.append(reply.confidence)
    assert set(said) == {0.8, 0.9}
    assert np.mean(said) == pytest.approx(0.83, abs=0.008)


def test_the_expected_score_teaches_the_mean_where_imitation_teaches_the_mode() -> None:
    """One question, deliberated to .99 six times in ten and to .49 else: the mean is .79."""
    sure = ShareTable((0.0, 1.0), (0.0, 0.99))
    half = Private(TASK, ("42",) * 4, (0.9,) * 4, "42", 0.49 / 0.99)

    def stated(weight: float) -> float:
        """The likeliest level of free logits, one row for all of these demonstrations."""
        policy, rng, how = tiny_policy(), np.random.default_rng(0), Supervised()
        samples = [
            sample
            for state, count in ((SURE, 12), (half, 8))
            for sample in demonstrations(
                [(TASK, None)] * count, {"t": state}, sure, policy, rng, weight
            )
        ]
        (packed,) = pack(samples, pad_id=0, shared=False, budget=10_000)
        n, length = packed.targets.shape
        packed = replace(packed, slots=torch.arange(n * length).view(n, length))
        logits = torch.zeros(1, packed.targets.shape[1], len(policy.tokenizer), requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=0.1)
        for _ in range(200):
            rows = logits.expand(len(samples), -1, -1).flatten(0, 1)
            loss, _ = how(rows, packed, samples, how.scale(samples))
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        assert policy.level_ids is not None
        at = list(samples[0].completion_ids).index(token_id(policy.tokenizer, "<confidence>")) + 1
        return float(logits[0, at, list(policy.level_ids)].argmax()) / 10

    assert stated(0.0) == 1.0
    assert stated(1.0) == 0.8


def test_a_scored_demonstration_imitates_all_but_the_confidence() -> None:
    policy, rng = tiny_policy(), np.random.default_rng(0)
    (sample,) = demonstrations([(TASK, None)], {"t": SURE}, SHARES, policy, rng, 0.5)
    term = sample.expected_score
    assert term is not None and term.weight == 0.5
    assert term.losses == pytest.approx([(k / 10 - 0.95) ** 2 for k in range(11)])
    assert sample.completion_ids[term.position] in term.level_ids
    masked = [t for t, weight in enumerate(sample.advantages) if weight == 0.0]
    assert masked == [term.position]
    (wordy,) = demonstrations([(TASK, None)], {"t": SURE}, SHARES, byte_policy(), rng, 0.5)
    assert wordy.expected_score is None and set(wordy.advantages) == {1.0}
