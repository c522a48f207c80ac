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

Two rewards pay something other than an answer. ``self_assessment`` pays what is said after the
token ``<post_completion>``, against the verdict on the reply before it; all others read that reply
alone. Models of demur's stop at this token, so for this reward it has to go from
``generation_config.eos_token_id``. ``learnability`` pays a question that was asked, and has no
judge of its own: whoever had it answered (a rollout, an environment) forwards the share of its
``n`` answers that counted as right as the column ``verdict``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from demur.anchors import Anchor, judge_round
from demur.anchors.truth import Truth
from demur.errors import ConfigError
from demur.games.post_completion import read_after
from demur.games.propose import read_question
from demur.games.rounds import RESPONDER, Draw, draw_of
from demur.reply import POST_COMPLETION, parse
from demur.rewards import check_weights, make_parts
from demur.rewards.base import RewardPart
from demur.schema import Completion, Episode, Group, Reply, Said, Task, Turn, Verdict

OBJECTION = "objection"
"""What the rollout of the objection game says in its column ``game``."""
FORMS = {
    "truth": "the right answer, or None where it is not known",
    "grader": "how answers are compared: exact, number, choice or math",
    "exchange": "the task and the claim that the anchor judges by",
}
"""The columns that verdicts are made of."""
QUESTION, ASSESSMENT = "learnability", "self_assessment"
"""The parts that pay a question, and what is said after a reply, in place of an answer."""


class NoAssessmentWarning(UserWarning):
    """Completions end where an assessment would begin."""


def reply_in(text: str) -> str:
    """What of a completion is the reply: all before the token at which inference stops."""
    return text.partition(POST_COMPLETION)[0]


def assessment_in(text: str) -> Said:
    """What a completion says of its own reply, after it."""
    reply, _, after = text.partition(POST_COMPLETION)
    return read_after(Completion(after), parse(reply))


READERS: dict[str, Callable[[str], Said]] = {ASSESSMENT: assessment_in, QUESTION: read_question}
"""How a part reads a completion, where it is not as an answer."""


class Verdicts:
    """What is said of each reply of a batch, once for all rewards that ask."""

    def __init__(self, anchor: Anchor | None = None) -> None:
        self.anchor = anchor
        self._judged: tuple[object, list[Verdict]] | None = None
        self._told: set[str] = set()

    def __call__(
        self, texts: Sequence[str], columns: Mapping[str, Any], asker: str
    ) -> list[Verdict]:
        """One probability (or None) a text. Raises ``ConfigError`` for a column that is not there.

        An anchor is asked once about a batch, whoever asks: the parts of one reward shall be paid
        for the same verdict, even that of a coin. Where the same ``asker`` comes back, the same
        texts are another batch.
        """
        if self.anchor is None and "verdict" in columns:
            return [_probability(value) for value in columns["verdict"]]
        draws = self._draws(columns)
        batch = (tuple(texts), tuple(draws))
        if self._judged is None or self._judged[0] != batch or asker in self._told:
            self._judged = batch, judged(self.anchor or Truth(), texts, draws)
            self._told.clear()
        self._told.add(asker)
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
        self.part = _parts({name: 1.0}, {name: self.options})[name]
        # A part that pays a whole reply without any verdict needs no columns: format.
        self.needs_verdict = self.part(Reply("", 0.5), None) is None
        if name == QUESTION and verdicts.anchor is not None:
            raise ConfigError(
                f"{QUESTION} is paid by how a question's answers came out, which no anchor sees "
                "here: leave the anchor out, and forward the share that was right as the column "
                "'verdict'"
            )

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
        whole = columns.get("reply_text") or [text_of(each) for each in completions]
        replies = [reply_in(text) for text in whole]
        verdicts: Sequence[Verdict] = [None] * len(whole)
        if self.name == QUESTION:
            verdicts = [_probability(value) for value in _outcomes(columns)]
        elif self.needs_verdict:
            verdicts = self.verdicts(replies, columns, self.name)
        if self.name == ASSESSMENT:
            _check_assessed(whole, columns)
        read = READERS.get(self.name)
        said = [parse(r) for r in replies] if read is None else [read(text) for text in whole]
        paid = [self.part(s, v) for s, v in zip(said, verdicts, strict=True)]
        return [None if component is None else float(component.value) for component in paid]

    def __reduce__(self) -> tuple[object, ...]:  # the part is a closure
        return RewardFunction, (self.name, self.options, self.verdicts)


def reward_func(name: str, *, anchor: Anchor | None = None, **options: object) -> RewardFunction:
    """The reward ``name`` of :data:`demur.rewards.REWARDS` with its ``options``, for TRL.

    ``learnability`` also takes ``n``, how many answers each question gets. Raises ``UnknownName``
    for a reward or option that there is not, and ``ConfigError`` for a value that does not work.
    """
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
    if QUESTION in weights and len(weights) > 1:
        others = " and ".join(name for name in weights if name != QUESTION)
        raise ConfigError(
            f"{QUESTION} pays a question and {others} a reply, and a completion is one of them: "
            "train the two seats with trainers of their own, or use demur train"
        )
    _parts(weights, options)
    verdicts, chosen = Verdicts(anchor), options or {}
    functions = [RewardFunction(name, chosen.get(name, {}), verdicts) for name in weights]
    return functions, [float(weight) for weight in weights.values()]


def _parts(
    weights: Mapping[str, float], options: Mapping[str, Mapping[str, object]] | None
) -> dict[str, RewardPart]:
    """The parts, for a question with as many answers as its options say."""
    chosen = {name: dict(given) for name, given in (options or {}).items()}
    if QUESTION not in weights:
        return make_parts(weights, chosen)
    n = chosen.setdefault(QUESTION, {}).pop("n", None)
    if not isinstance(n, int) or isinstance(n, bool):
        raise ConfigError(
            f"{QUESTION} needs to know how many answers a question gets: give it n, as in "
            f"reward_func({QUESTION!r}, n=8)"
        )
    return make_parts(weights, chosen, n=n)


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


def _check_assessed(texts: Sequence[str], columns: Mapping[str, Any]) -> None:
    if OBJECTION in columns.get("game", ()):
        raise ConfigError(
            f"{ASSESSMENT} pays what is said after a reply, and the rollout of the objection game "
            "ends with the reply: leave the rollout or the reward out, or use demur train"
        )
    ended = [text for text in texts if POST_COMPLETION in text]
    if ended and all(text.endswith(POST_COMPLETION) for text in ended):
        warnings.warn(
            f"generation stops at {POST_COMPLETION}, where an assessment would begin, and so "
            f"{ASSESSMENT} pays 0: take it from the model's generation_config.eos_token_id",
            NoAssessmentWarning,
            stacklevel=3,
        )


def _outcomes(columns: Mapping[str, Any]) -> Sequence[object]:
    if "verdict" not in columns:
        raise ConfigError(
            f"{QUESTION} is paid by the share of a question's answers that counted as right: have "
            "the questions answered in a rollout_func, and forward it as the column 'verdict'"
        )
    found: Sequence[object] = columns["verdict"]
    return found


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
            f"the column 'verdict' holds {value!r}: give the probability that the reply is right "
            f"(to {QUESTION}, the share of answers that were), from 0 to 1, or None to abstain"
        )
    return given
