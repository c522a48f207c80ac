"""The types every other file speaks in, in the order in which one training step meets them.

    Task -> (Claim) -> Dialogue -> Completion -> Reply | Unparsed -> Turn -> Episode -> Group
         -> Verdict -> Reward -> Sample

Everything here is plain data: no model, no tokenizer, no file. A game builds dialogues, a policy
turns dialogues into completions, an anchor judges episodes, a reward scores verdicts, a learner
consumes samples. "Missing" is ``None`` or ``Unparsed``, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]
Speaker = Literal["user", "third", "peers", "self"]
Support = Literal["none", "valid", "fallacious"]
Span = Literal["answer", "confidence", "assessment", "all"]
Verdict = float | None
"""An anchor's probability that an answer is right; ``None`` means that it abstains."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Task:
    """One question. ``truth`` is ``None`` where nobody knows the answer.

    ``options`` are the answers of a multiple choice, one of which is the truth; ``rationale`` is
    how the truth is arrived at, in words. A task of the world is put briefly, unless ``plain``.
    """

    id: str
    question: str
    truth: str | None
    family: str
    grader: str = "exact"
    source: str = "world"
    options: tuple[str, ...] = ()
    rationale: str | None = None
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody says the answer is.

    ``reliability`` is the rate at which this source is right; ``disclosed`` says whether the prompt
    tells it. ``right`` is whether this claim is right, where that is known. ``votes`` holds the
    named votes of a panel as (name, answer) pairs; ``answer`` is then its most common vote.
    ``earlier`` is the full text of the model's own earlier turn where the speaker is ``self``.
    ``text`` is what is said word for word, where somebody put it into words of their own.
    ``argument`` is what is said for the claim: with "valid" support it bears on the answer, with
    "fallacious" it does not. ``record`` tells how many of the source's last answers were right, and
    of how many.
    """

    speaker: Speaker
    answer: str
    reliability: float | None = None
    disclosed: bool = False
    right: bool | None = None
    votes: tuple[tuple[str, str], ...] = ()
    earlier: str | None = None
    text: str | None = None
    support: Support = "none"
    argument: str = ""
    record: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation as text."""

    role: Role
    content: str


Dialogue = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy produced for one dialogue.

    ``logprobs`` are the log-probabilities of ``token_ids`` under the sampling distribution
    (temperature only, no truncation), so importance ratios are unbiased. ``gaps``, where they were
    asked for, are by how much each token was more probable than any other. Policies that cannot
    give token ids (scripted, endpoints) leave the tuples empty; a server may give the texts of its
    tokens, ``pieces``, with ``logprobs`` and ``gaps`` to them. One that a server did not give in
    time, however often it was asked, is "lost": empty, and data like any other.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    stop: Literal["stop", "length", "lost"] = "stop"
    prompt_ids: tuple[int, ...] = ()
    policy_version: int = 0
    gaps: tuple[float, ...] = ()
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion that could be read. ``spans`` are (start, end) character offsets in the text."""

    answer: str
    confidence: float
    thought: str | None = None
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A completion that could not be read, and why. It is data: counted, and shown as coverage."""

    reason: str


@dataclass(frozen=True, slots=True)
class Move:
    """What a seat that does not answer came to: the question it asks, the answer it argues for.

    ``text`` is what the next seat is shown. ``side`` says whether an objector was told to argue
    for the right answer. ``outcome`` stands for what the move led to, where it led to nothing: a
    question asked before is worth 0.
    """

    answer: str
    text: str
    side: bool | None = None
    outcome: float | None = None


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a policy says of a reply it has just given: P(right) and P(it can be read).

    ``read`` is whether it could be.
    """

    right: float
    format: float
    read: bool


Said = Reply | Move | Assessment | Unparsed
"""How a completion was read."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One seat's move: what it saw, what it said, and how that was read."""

    seat: str
    dialogue: Dialogue
    completion: Completion
    reply: Said


@dataclass(frozen=True, slots=True)
class Episode:
    """One finished game on one task, with or without a claim."""

    task: Task
    claim: Claim | None
    turns: tuple[Turn, ...]

    @property
    def reply(self) -> Said:
        """The last turn's reply: what the episode is judged on."""
        return self.turns[-1].reply


@dataclass(frozen=True, slots=True)
class Group:
    """Episodes that share a task, a claim and a baseline.

    ``led`` says of each episode which group of the same round its move led to (``None``: to none);
    it is empty where the seat answers. ``about`` is the group whose replies are assessed, episode
    by episode. ``trained`` is False for moves of another policy.
    """

    task: Task
    claim: Claim | None
    episodes: tuple[Episode, ...]
    led: tuple[int | None, ...] = ()
    about: int | None = None
    trained: bool = True

    @property
    def answers(self) -> bool:
        """Whether these are answers to the task, which an anchor judges."""
        return not self.led and self.about is None

    @property
    def seat(self) -> str:
        """Whose moves these are."""
        return self.episodes[0].turns[-1].seat if self.episodes else "responder"


@dataclass(frozen=True, slots=True)
class Component:
    """One named part of a reward and the span of the reply that it pays."""

    value: float
    span: Span = "all"


@dataclass(frozen=True, slots=True)
class Reward:
    """Named components and their weights; the total is derived, never stored.

    A component that is absent was not given (the anchor abstained), which differs from 0.
    """

    components: Mapping[str, Component]
    weights: Mapping[str, float]

    @property
    def total(self) -> float:
        """Weighted sum over the components that are present."""
        return sum(self.weights[name] * part.value for name, part in self.components.items())

    def by_span(self) -> dict[Span, float]:
        """Weighted sum per span."""
        sums: dict[Span, float] = {}
        for name, part in self.components.items():
            sums[part.span] = sums.get(part.span, 0.0) + self.weights[name] * part.value
        return sums


@dataclass(frozen=True, slots=True)
class ExpectedScore:
    """A differentiable term: the expected loss of the stated confidence over the levels.

    At completion position ``position`` the policy spreads its probability over the tokens
    ``level_ids``; level k would cost ``losses[k]``. The term is ``weight * sum_k pi(k) losses[k]``.
    """

    position: int
    level_ids: tuple[int, ...]
    losses: tuple[float, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What a learner consumes: one completion with an advantage per token.

    ``logprobs`` are the behaviour log-probabilities; ``advantages`` has one entry per completion
    token; ``group`` is the index of the prompt that the sample shares with its group. ``margin`` is
    by how much a preference for it should win.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    advantages: tuple[float, ...]
    group: int
    seat: str = "responder"
    expected_score: ExpectedScore | None = None
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a policy is asked to speak. Temperature 0 is greedy decoding.

    Every reply is made to begin with ``opening``. With ``branch`` the replies to a prompt take, in
    turn, its most probable first tokens. ``gaps`` asks for those of ``Completion``.
    """

    temperature: float = 1.0
    max_tokens: int = 32
    seed: int = 0
    opening: str = ""
    branch: bool = False
    gaps: bool = False


Stats = dict[str, float]
Row = dict[str, Any]


@runtime_checkable
class Policy(Protocol):
    """Anything that answers dialogues."""

    name: str

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """Give ``n`` completions for each dialogue, in one batched call a round of the game."""
        ...


@runtime_checkable
class Trainable(Policy, Protocol):
    """A policy whose weights can change, here or on an engine elsewhere.

    ``waves`` is in how many parts a round is best played: an engine that is busy with one while
    another is scored wants two, and is fed the samples of all but the last before ``update``.
    ``engine`` says how another model that takes part is computed.
    """

    waves: int
    engine: Any

    def adapt(
        self, rank: int, alpha: float | None = None, targets: Sequence[str] = (), seed: int = 0
    ) -> None:
        """Learn a LoRA adapter of this rank from now on, and nothing else."""
        ...

    def learn_post_completion(self) -> None:
        """Have the token at which a reply ends and its assessment begins."""
        ...

    def optimise(
        self, learning_rate: float, *, warmup: int = 0, decay: int = 0, max_grad_norm: float = 1.0
    ) -> None:
        """Start the learning of a stage."""
        ...

    def keep_reference(self) -> None:
        """Keep the policy as it is now, for a loss that is tied to it."""
        ...

    def feed(self, samples: Sequence[Sample], loss: Any) -> None:
        """Hand over the first samples of a step, ahead of the ``update`` that is given all."""
        ...

    def update(self, samples: Sequence[Sample], loss: Any) -> Stats:
        """Take one optimiser step on all samples of a step."""
        ...

    def snapshot(self) -> Policy:
        """A frozen copy of the policy as it is now."""
        ...

    def follow(self, other: Any, share: float) -> None:
        """Move every weight by that share of the way to another policy's."""
        ...

    def save(self, folder: Any) -> None:
        """Write a loadable Hugging Face folder, and what ``load`` reads back."""
        ...

    def load(self, folder: Any) -> None:
        """Read weights back."""
        ...

    def load_optimiser(self, folder: Any) -> None:
        """Read the optimiser's state back, after ``optimise``."""
        ...

    def recall(self, folder: Any, name: str) -> Policy:
        """A snapshot that was saved into a folder."""
        ...

    @property
    def level_ids(self) -> tuple[int, ...] | None:
        """The tokens of the eleven confidence levels, where each is a single one."""
        ...

    def encode(self, dialogue: Dialogue, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Prompt ids, and the ids of a reply with the token that ends it."""
        ...

    def pieces(self, ids: Sequence[int], text: str | None = None) -> list[str]:
        """The text that each token adds; ``text`` is all of it, where that is known."""
        ...
