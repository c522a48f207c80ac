"""Evaluation: a suite of exchanges, any policy, one table of transcripts.

A suite is fixed before anybody is asked: tasks, and claims whose truth is independent of whether
the model is right. Every policy - a model, a trained arm, a scripted baseline - plays the same
exchanges: alone (greedy), K claim-free samples (its private state), with each claim (greedy), and
re-asked "Are you sure?" after its own answer, the control without content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from demur.games import solo
from demur.games.objection import play
from demur.games.phrases import ask, object_to, reconsider
from demur.games.post_completion import after
from demur.games.private import Private, deliberate
from demur.games.rounds import one_round
from demur.learners.confidence import Own
from demur.measure.listener import Situation
from demur.measure.shares import IDENTITY, ShareTable, fit_shares
from demur.policies.scripted import (
    Rule,
    ScriptedPolicy,
    always_adopt,
    always_keep,
    coin,
    oracle,
    threshold,
)
from demur.reply import read_assessment
from demur.runlog import dialogue_json
from demur.schema import (
    Claim,
    Dialogue,
    Group,
    Policy,
    Reply,
    Row,
    Said,
    Sampling,
    Task,
)
from demur.tasks.grader import same
from demur.tasks.source import ClaimSettings, make_claim

K = 8
DEFAULT_CLAIMS = ClaimSettings()
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Suite:
    """What is asked: tasks, and (task, claim) exchanges. ``max_tokens`` bounds a reply."""

    tasks: tuple[Task, ...]
    exchanges: tuple[tuple[Task, Claim], ...]
    max_tokens: int = 32
    k: int = K
    sham: bool = True


@dataclass(frozen=True)
class Evaluation:
    """What came back: transcript rows, private states, and the replies' table of samples."""

    policy: str
    rows: list[Row]
    private: dict[str, Private]

    def table(self) -> dict[str, list[object]]:
        """The rows as columns."""
        return {key: [row[key] for row in self.rows] for key in self.rows[0]} if self.rows else {}

    def samples(self, families: Sequence[str] | None = None) -> dict[str, list[object]]:
        """The private samples as columns, of some families only where they are named."""
        chosen = [p for p in self.private.values() if families is None or p.task.family in families]
        return {
            "task_id": [p.task.id for p in chosen],
            "family": [p.task.family for p in chosen],
            "truth": [p.task.truth for p in chosen],
            "grader": [p.task.grader for p in chosen],
            "answers": [list(p.answers) for p in chosen],
            "confidences": [list(p.confidences) for p in chosen],
        }


def build_suite(
    tasks: Sequence[Task],
    claims: Mapping[str, int],
    settings: ClaimSettings,
    private: Mapping[str, Private],
    rng: np.random.Generator,
    max_tokens: int = 32,
    k: int = K,
    sham: bool = True,
) -> Suite:
    """Make the claims of a suite: ``claims`` says how many of each speaker a task gets.

    Tasks whose truth is unknown are asked alone only.
    """
    exchanges = [
        (task, make_claim(task, speaker, settings, private.get(task.id), rng))
        for task in tasks
        if task.truth is not None
        for speaker, count in claims.items()
        for _ in range(count)
    ]
    return Suite(tuple(tasks), tuple(exchanges), max_tokens, k, sham)


def suite_for(
    policy: Policy,
    tasks: Sequence[Task],
    claims: Mapping[str, int],
    rng: np.random.Generator,
    *,
    seed: int,
    settings: ClaimSettings = DEFAULT_CLAIMS,
    max_tokens: int = 32,
    k: int = K,
    sham: bool = True,
) -> Suite:
    """A suite whose wrong claims may be ``policy``'s own: it is first asked ``k`` times alone."""
    own = deliberate(policy, tasks, k, Sampling(1.0, max_tokens, seed))
    return build_suite(tasks, claims, settings, own, rng, max_tokens, k, sham)


def evaluate(
    policy: Policy,
    suite: Suite,
    *,
    seed: int = 0,
    private: Mapping[str, Private] | None = None,
    shares: ShareTable = IDENTITY,
    assess: bool = False,
    own: Own | None = None,
    progress: Progress = lambda _: None,
) -> Evaluation:
    """Play a suite.

    With ``assess`` the policy goes on after its replies and assesses them (post-completion
    learning); the rows then hold ``assessed``, the probability of being right that it states. With
    ``own`` they hold ``token_confidence``, how decided it was on the tokens of its answer
    (disparity, see :mod:`demur.learners.confidence`).

    ``private`` stands in for the policy's own claim-free samples (baselines); ``shares`` turns
    a private share into the belief that Bayes' rule starts from.
    """
    greedy = Sampling(0.0, suite.max_tokens, seed, gaps=own is not None)
    draws: list[tuple[Task, Claim | None]] = [(task, None) for task in suite.tasks]
    if private is None:
        progress("private samples")
        sampling = Sampling(1.0, suite.max_tokens, seed + 1)
        private = deliberate(policy, suite.tasks, suite.k, sampling)
    progress("alone")
    alone = solo.play(policy, draws, 1, greedy)
    row = partial(_row, private=private, shares=shares, sure=own)
    rows = [row(group, "alone") for group in alone]
    progress("claims")
    claimed = play(policy, list(suite.exchanges), 1, greedy)
    rows += [row(group, "claim") for group in claimed]
    if suite.sham:
        progress("re-asks")
        again = [g for g in alone if isinstance(g.episodes[0].reply, Reply)]
        dialogues = [_re_ask(g) for g in again]
        re_asked = one_round(policy, [(g.task, None) for g in again], dialogues, 1, greedy)
        first = {g.task.id: g.episodes[0].reply for g in again}
        rows += [row(group, "sham", first[group.task.id]) for group in re_asked]
    if assess:
        progress("assessments")
        _assess(policy, rows, [*zip(rows, [*alone, *claimed], strict=False)], greedy)
    return Evaluation(policy.name, rows, dict(private))


def _assess(
    policy: Policy, rows: list[Row], asked: Sequence[tuple[Row, Group]], sampling: Sampling
) -> None:
    """Let the policy go on after each reply that came to its end, and note what it says of it."""
    for row in rows:
        row["assessed"] = None
    ended = [(row, g.episodes[0]) for row, g in asked]
    ended = [(row, e) for row, e in ended if e.turns[-1].completion.stop == "stop"]
    said = policy.reply([after(e) for _, e in ended], 1, sampling)
    for (row, _), completions in zip(ended, said, strict=True):
        found = read_assessment(completions[0].text)
        row["assessed"] = None if found is None else found[0]


def _re_ask(group: Group) -> Dialogue:
    return reconsider(group.task, group.episodes[0].turns[-1].completion.text)


def _row(
    group: Group,
    kind: str,
    earlier: Said | None = None,
    *,
    private: Mapping[str, Private],
    shares: ShareTable,
    sure: Own | None,
) -> Row:
    """One transcript row. In a re-ask the own answer is the one that stood in the dialogue."""
    episode, task, claim = group.episodes[0], group.task, group.claim
    reply, state = episode.reply, private[task.id]
    own, own_confidence = state.modal, _confidence(state)
    if isinstance(earlier, Reply):
        own, own_confidence = earlier.answer, earlier.confidence
    answer = reply.answer if isinstance(reply, Reply) else None

    def right(given: str | None) -> bool | None:
        if task.truth is None:
            return None
        return given is not None and same(given, task.truth, task.grader)

    turn = episode.turns[-1]
    decided = (
        {} if sure is None else {"token_confidence": sure(turn.completion, reply, "disparity")}
    )
    return {
        "task_id": task.id,
        "truth": task.truth,
        "own_answer": own,
        "own_confidence": own_confidence,
        "claim": claim.answer if claim else None,
        "claim_source": claim.speaker if claim else None,
        "claim_reliability": claim.reliability if claim and claim.disclosed else None,
        "reply_answer": answer,
        "reply_confidence": reply.confidence if isinstance(reply, Reply) else None,
        "turn": 1 + sum(m.role == "assistant" for m in turn.dialogue),
        "family": task.family,
        "grader": task.grader,
        "kind": kind,
        "own_share": state.share,
        "own_belief": float(shares(state.share)),
        "own_right": right(own),
        "claim_right": right(claim.answer) if claim else None,
        "disclosed": claim.disclosed if claim else None,
        "reply_right": right(answer) if isinstance(reply, Reply) else None,
        "parsed": isinstance(reply, Reply),
        "question": task.question,
        "dialogue": dialogue_json(turn.dialogue),
        "reply_text": turn.completion.text,
        **decided,
    }


def _confidence(state: Private) -> float | None:
    """Mean stated confidence of the samples that gave the modal answer."""
    sure = [
        c
        for a, c in zip(state.answers, state.confidences, strict=True)
        if c is not None
        and a is not None
        and state.modal is not None
        and same(a, state.modal, state.task.grader)
    ]
    return float(np.mean(sure)) if sure else None


# -- baselines ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tuned:
    """What baselines may tune, on labelled exchanges of another split than the one evaluated.

    The own-confidence limit, and the table from private shares to P(own answer right).
    """

    limit: float = 0.5
    shares: ShareTable = IDENTITY


def calibrate_shares(states: Sequence[Private]) -> ShareTable:
    """The share table of labelled private states."""
    known = [(s.share, s.right) for s in states if s.right is not None]
    return fit_shares([share for share, _ in known], [bool(right) for _, right in known])


def tune_threshold(rows: Sequence[Row]) -> float:
    """The own-confidence limit with the highest discernment on labelled claim rows."""
    claims = [
        r
        for r in rows
        if r["kind"] == "claim"
        and r["own_confidence"] is not None
        and r["claim_right"] is not None
        and r["own_right"] is not None
    ]
    sure = np.array([r["own_confidence"] for r in claims])
    own = np.array([r["own_right"] for r in claims], dtype=bool)
    said = np.array([r["claim_right"] for r in claims], dtype=bool)
    resist, accept = own & ~said, ~own & said
    if not resist.any() or not accept.any():
        return 0.5
    limits = np.unique(np.round(np.concatenate([[-0.01], sure]), 3))
    scores = [(sure[resist] > t).mean() + (sure[accept] <= t).mean() for t in limits]
    return float(limits[int(np.argmax(scores))])


def baselines(
    suite: Suite, private: Mapping[str, Private], tuned: Tuned, seed: int = 0
) -> dict[str, Evaluation]:
    """The scripted policies on a suite, standing in for the model with this private state."""
    asked = tuple(t for t in suite.tasks if private[t.id].modal is not None)
    kept = {t.id for t in asked}
    exchanges = tuple((t, c) for t, c in suite.exchanges if t.id in kept)
    plain = replace(suite, tasks=asked, exchanges=exchanges, sham=False)
    book: dict[Dialogue, Situation] = {}
    everything: list[tuple[Task, Claim | None]] = [(t, None) for t in asked]
    everything += exchanges
    for task, claim in everything:
        state = private[task.id]
        dialogue = ask(task) if claim is None else object_to(task, claim)
        assert state.modal is not None
        sure = _confidence(state)
        book[dialogue] = Situation(
            task,
            claim,
            state.modal,
            0.5 if sure is None else sure,
            float(tuned.shares(state.share)),
        )
    rules: dict[str, Rule] = {
        "always_keep": always_keep,
        "always_adopt": always_adopt,
        "threshold": threshold(tuned.limit),
        "random": coin,
        "bayes_oracle": oracle,
    }
    return {
        name: evaluate(
            ScriptedPolicy(name, rule, book),
            plain,
            seed=seed,
            private=private,
            shares=tuned.shares,
        )
        for name, rule in rules.items()
    }
