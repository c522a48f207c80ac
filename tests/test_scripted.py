"""The scripted rules, each through a real game."""

from __future__ import annotations

import numpy as np
import pytest
from contracts import check_policy

from demur.games import make_game
from demur.games.phrases import ask, object_to
from demur.measure.listener import Situation
from demur.policies.scripted import (
    Rule,
    ScriptedPolicy,
    always_adopt,
    always_keep,
    coin,
    oracle,
    threshold,
)
from demur.schema import Claim, Dialogue, Reply, Sampling, Task

TASK = Task("t", "20+22?", "42", "sum", "number")
USER = Claim("user", "41", 0.8, disclosed=True, right=False)
HIDDEN = Claim("user", "41", 0.8, right=False)
LIAR = Claim("user", "41", 0.1, disclosed=True, right=False)
FRIEND = Claim("user", "42.0", 0.8, disclosed=True, right=True)
PEERS = Claim(
    "peers", "41", 0.6, True, False, (("Ann", "41"), ("Bob", "41"), ("Cy", "41"), ("Dee", "43"))
)
SELF = Claim("self", "42", earlier="<answer>42</answer><confidence>0.6</confidence>")
CLAIMS = (None, USER, HIDDEN, LIAR, FRIEND, PEERS, SELF)


def book(confidence: float, belief: float) -> dict[Dialogue, Situation]:
    return {
        ask(TASK) if c is None else object_to(TASK, c): Situation(TASK, c, "42", confidence, belief)
        for c in CLAIMS
    }


def play(
    rule: Rule, confidence: float = 0.6, belief: float = 0.7, n: int = 1, seed: int = 0
) -> list[list[tuple[str, float]]]:
    """What the rule replies to each of ``CLAIMS``, read back out of the game's episodes."""
    policy = ScriptedPolicy("rule", rule, book(confidence, belief))
    draws = [(TASK, claim) for claim in CLAIMS]
    out = []
    for group in make_game("objection")(policy, draws, n, Sampling(0.0, 16, seed)):
        replies = [e.reply for e in group.episodes]
        assert all(isinstance(r, Reply) for r in replies)
        out.append([(r.answer, r.confidence) for r in replies if isinstance(r, Reply)])
    return out


def answers(rule: Rule, **more: float) -> list[str]:
    return [row[0][0] for row in play(rule, **more)]


def test_always_keep() -> None:
    assert [row[0] for row in play(always_keep)] == [("42", 0.6)] * 7


def test_always_adopt() -> None:
    assert answers(always_adopt) == ["42", "41", "41", "41", "42.0", "41", "42"]
    assert {row[0][1] for row in play(always_adopt)} == {0.6}


def test_threshold_keeps_above_the_limit_only() -> None:
    adopted = ["42", "41", "41", "41", "42.0", "41", "42"]
    assert answers(threshold(0.5)) == ["42"] * 7
    assert answers(threshold(0.6)) == adopted, "the limit itself is not above it"
    assert answers(threshold(0.7)) == adopted


def test_coin_keeps_and_takes_about_equally_often() -> None:
    rows = play(coin, n=400)
    assert {answer for answer, _ in rows[0]} == {"42"}, "there is nothing to take"
    took = [answer for answer, _ in rows[1]].count("41") / 400
    assert 0.4 < took < 0.6
    levels = {confidence for row in rows for _, confidence in row}
    assert levels == {k / 10 for k in range(11)}
    assert play(coin, n=50, seed=1) == play(coin, n=50, seed=1) != play(coin, n=50, seed=2)


def test_the_oracle_weighs_belief_against_reliability() -> None:
    rows = play(oracle, confidence=0.1, belief=0.7)
    alone, user, hidden, liar, friend, peers, again = (row[0] for row in rows)
    assert alone == again == ("42", pytest.approx(0.7)), "a stated confidence plays no part"
    # user: .7 * .2 * .1 own, .3 * .1 * .8 claim, .3 * .9 * .2 * .1 neither
    own, claim, rest = 0.7 * 0.2 * 0.1, 0.3 * 0.1 * 0.8, 0.3 * 0.9 * 0.2 * 0.1
    assert user == ("41", pytest.approx(claim / (own + claim + rest)))
    own, claim, rest = 0.7 * 0.5 * 0.1, 0.3 * 0.1 * 0.5, 0.3 * 0.9 * 0.5 * 0.1
    assert hidden == ("42", pytest.approx(own / (own + claim + rest))), "undisclosed: a coin"
    assert liar[0] == "42" and liar[1] > hidden[1]
    # they agree: .7 * .8 own, .3 * .2 * .1 neither
    assert friend == ("42", pytest.approx(0.56 / (0.56 + 0.006)))
    # four votes, w = .4 * .1: none for own, three for the claim, one for a third answer
    own, claim, rest = 0.7 * 0.04**4, 0.3 * 0.1 * 0.6**3 * 0.04, 0.3 * 0.9 * 0.04**4
    assert peers == ("41", pytest.approx(claim / (own + claim + rest)))
    assert answers(oracle, belief=0.99)[1] == "42"
    assert answers(oracle, belief=0.01)[2] == "41"


def test_certainties_do_not_break_the_oracle() -> None:
    sure = Claim("user", "41", 1.0, disclosed=True, right=False)
    rng = np.random.default_rng(0)
    for belief in (0.0, 1.0):
        answer, q = oracle(Situation(TASK, sure, "42", 0.5, belief), rng)
        assert answer in ("41", "42") and 0.0 < q < 1.0


def test_a_dialogue_outside_the_book_is_a_bug() -> None:
    policy = ScriptedPolicy("rule", always_keep, {})
    with pytest.raises(KeyError):
        policy.reply([ask(TASK)], 1, Sampling())


RULES = {
    "always_keep": always_keep,
    "always_adopt": always_adopt,
    "threshold": threshold(0.5),
    "random": coin,
    "bayes_oracle": oracle,
}


@pytest.mark.parametrize("name", RULES)
def test_scripted_policies_keep_the_contract(name: str) -> None:
    situations = book(0.6, 0.7)
    check_policy(ScriptedPolicy(name, RULES[name], situations), list(situations))
