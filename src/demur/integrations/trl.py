"""demur's rewards as reward functions of TRL's GRPOTrainer (``pip install 'demur[trl]'``).

    functions, weights = reward_funcs({"correctness": 1.0, "brier": 1.0})
    GRPOTrainer(
        model=model,
        reward_funcs=functions,
        args=GRPOConfig(reward_weights=weights, ...),
        train_dataset=rows,  # of demur export RUN --format trl-grpo, or objection_rows(draws)
    )

A completion is read by :func:`demur.reply.parse` and paid by the same parts as in ``demur train``;
where a part gives nothing, as under an anchor that abstains, the function gives None, which TRL
leaves out of mean and advantage. TRL pays the whole reply, as a recipe with ``spans = false`` does.

Verdicts come from, in this order:

1. the anchor that was given: any of :mod:`demur.anchors`, which judges the replies to one exchange
   as a group. It reads the column ``exchange``, a task and a claim as
   :func:`demur.games.rounds.draw_json` writes them. Where processes share a group, each judges its
   own part of it; anchors that look at tokens belong in
   :class:`demur.integrations.trl_rollout.ObjectionRollout`;
2. a column ``verdict``, if there is one: the probability that this very reply is right, as that
   rollout forwards it. None abstains;
3. the columns ``truth`` and ``grader`` (a name of :data:`demur.tasks.grader.GRADERS`). A truth of
   None abstains.

A column ``reply_text`` is read in the place of the completion: TRL drops special tokens from its
text, in which an answer broken by one would pass for whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from demur.anchors import Anchor, judge_round
from demur.anchors.truth import Truth
from demur.errors import ConfigError
from demur.games.rounds import RESPONDER, Draw, draw_of
from demur.reply import parse
from demur.rewards import OUTCOME_REWARDS, check_weights, make_parts
from demur.schema import Completion, Episode, Group, Reply, Task, Turn, Verdict

FORMS = {
    "truth": "the right answer, or None where it is not known",
    "grader": "how answers are compared: exact, number, choice or math",
    "exchange": "the task and the claim that the anchor judges by",
}
"""The columns that verdicts are made of."""


class Verdicts:
    """What is said of each reply of a batch, once for all rewards that ask."""

    def __init__(self, anchor: Anchor | None = None) -> None:
        self.anchor = anchor
        self._judged: tuple[object, list[Verdict]] | None = None

    def __call__(self, texts: Sequence[str], columns: Mapping[str, Any]) -> list[Verdict]:
        """One probability (or None) a text. Raises ``ConfigError`` for a column that is not there.

        An anchor is not asked again about the batch that it judged last: the parts of one reward
        shall be paid for the same verdict, even that of a coin.
        """
        if self.anchor is None and "verdict" in columns:
            return [_probability(value) for value in columns["verdict"]]
        draws = self._draws(columns)
        batch = (tuple(texts), tuple(draws))
        if self._judged is None or self._judged[0] != batch:
            self._judged = batch, judged(self.anchor or Truth(), texts, draws)
        return self._judged[1]

    def _draws(self, columns: Mapping[str, Any]) -> list[Draw]:
        if self.anchor is not None:
            return [draw_of(cell) for cell in _column(columns, "exchange")]
        truths, graders = _column(columns, "truth"), _column(columns, "grader")
        return [
            (Task("", "", None if truth is None else str(truth), "", grader), None)
            for truth, grader in zip(truths, graders, strict=True)
        ]


def judged(anchor: Anchor, texts: Sequence[str], draws: Sequence[Draw]) -> list[Verdict]:
    """An anchor's verdict on each text; the replies to one exchange are a group, in order."""
    episodes = [
        Episode(task, claim, (Turn(RESPONDER, (), Completion(text), parse(text)),))
        for text, (task, claim) in zip(texts, draws, strict=True)
    ]
    return judge_episodes(anchor, episodes)


def judge_episodes(anchor: Anchor, episodes: Sequence[Episode]) -> list[Verdict]:
    """An anchor's verdict on each episode; those of one exchange are a group, in order."""
    places: dict[Draw, list[int]] = {}
    for i, episode in enumerate(episodes):
        places.setdefault((episode.task, episode.claim), []).append(i)
    groups = [
        Group(task, claim, tuple(episodes[i] for i in at)) for (task, claim), at in places.items()
    ]
    verdicts: list[Verdict] = [None] * len(episodes)
    for at, said in zip(places.values(), judge_round(anchor, groups), strict=True):
        for i, verdict in zip(at, said, strict=True):
            verdicts[i] = verdict
    return verdicts


class RewardFunction:
    """One reward part as TRL calls it, under the name ``demur_`` and its own; can be pickled."""

    def __init__(self, name: str, options: Mapping[str, object], verdicts: Verdicts) -> None:
        self.__name__ = f"demur_{name}"
        self.name, self.options, self.verdicts = name, dict(options), verdicts
        self.part = make_parts({name: 1.0}, {name: self.options})[name]
        # A part that pays a whole reply without any verdict needs no columns: format.
        self.needs_verdict = self.part(Reply("", 0.5), None) is None

    def __call__(
        self,
        prompts: Sequence[object] = (),
        completions: Sequence[object] = (),
        **columns: Any,
    ) -> list[float | None]:
        """What each completion is paid, unweighted; None where the part gives nothing.

        ``completions`` are texts or lists of messages, of which the last of the assistant counts;
        ``columns`` are the dataset's, one entry a completion, and whatever else TRL passes on.
        Raises ``ConfigError`` for a missing column.
        """
        texts = columns.get("reply_text") or [text_of(each) for each in completions]
        verdicts: Sequence[Verdict] = [None] * len(texts)
        if self.needs_verdict:
            verdicts = self.verdicts(texts, columns)
        paid = [self.part(parse(t), v) for t, v in zip(texts, verdicts, strict=True)]
        return [None if component is None else float(component.value) for component in paid]

    def __reduce__(self) -> tuple[object, ...]:  # the part is a closure
        return RewardFunction, (self.name, self.options, self.verdicts)


def reward_func(name: str, *, anchor: Anchor | None = None, **options: object) -> RewardFunction:
    """The reward ``name`` of :data:`demur.rewards.REWARDS` with its ``options``, for TRL.

    Raises ``UnknownName`` for a reward or option that there is not, and ``ConfigError`` for one
    that does not pay an answer.
    """
    _check_pays_answers([name])
    return RewardFunction(name, options, Verdicts(anchor))


def reward_funcs(
    weights: Mapping[str, float],
    options: Mapping[str, Mapping[str, object]] | None = None,
    *,
    anchor: Anchor | None = None,
) -> tuple[list[RewardFunction], list[float]]:
    """Several rewards that share their verdicts, and ``GRPOConfig.reward_weights`` in their order.

    ``weights`` and ``options`` are by name, as in a recipe. Raises ``ConfigError`` as
    :func:`demur.rewards.check_weights` does: with Brier above correctness failing on purpose pays.
    """
    check_weights(weights)
    _check_pays_answers(weights)
    make_parts(weights, options)
    verdicts, chosen = Verdicts(anchor), options or {}
    functions = [RewardFunction(name, chosen.get(name, {}), verdicts) for name in weights]
    return functions, [float(weight) for weight in weights.values()]


def text_of(completion: object) -> str:
    """The text of a completion: itself, or what the assistant said last in a list of messages."""
    if isinstance(completion, str):
        return completion
    messages = completion if isinstance(completion, Sequence) else ()
    said = [m for m in messages if isinstance(m, Mapping) and m.get("role") == "assistant"]
    content = said[-1].get("content") if said else None
    if isinstance(content, list):  # typed parts
        return "".join(str(part.get("text") or "") for part in content)
    return content if isinstance(content, str) else ""  # a message of nothing but a tool call


def _check_pays_answers(names: Sequence[str] | Mapping[str, float]) -> None:
    others = sorted(OUTCOME_REWARDS & set(names))
    if others:
        raise ConfigError(
            f"{' and '.join(others)} cannot be used here, as it pays a seat beside the one that "
            "answers and GRPOTrainer trains the answers alone; leave it out, or use demur train"
        )


def _column(columns: Mapping[str, Any], name: str) -> Sequence[Any]:
    if name not in columns:
        raise ConfigError(
            f"the dataset has no column {name!r} ({FORMS[name]}): add it, or export the dataset "
            "with `demur export RUN --format trl-grpo`, and leave remove_unused_columns off"
        )
    found: Sequence[Any] = columns[name]
    return found


def _probability(value: object) -> Verdict:
    if value is None:
        return None
    given = float(value) if isinstance(value, int | float) else math.nan
    if not 0.0 <= given <= 1.0:
        raise ConfigError(
            f"the column 'verdict' holds {value!r}: give the probability that the reply is right, "
            "from 0 to 1, or None to abstain"
        )
    return given
