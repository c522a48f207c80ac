"""What a recipe may say: which tasks, and which stages of training one after the other.

Every key is checked against the registries of games, anchors and rewards and against its own
bounds, so that nothing fails an hour later. ``config`` reads recipes and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import Discriminator, Field, field_validator, model_validator

from demur.alarms import SENTENCES
from demur.anchors import SUPPLIED, make_anchor
from demur.errors import ConfigError, UnknownName
from demur.games import SEATS, make_game
from demur.rewards import check_weights, make_parts
from demur.schema import Speaker
from demur.tables import Count, EngineTable, Lora, Positive, Remote, Strict
from demur.tasks.grader import get_grader
from demur.tasks.source import MARKET, RELIABILITIES
from demur.world.questions import FAMILIES, PLAY_FAMILIES

Scalar = bool | int | float | str
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class FileTasks(Strict):
    """Tasks from a file instead of the embedded world; see ``demur.tasks.file.load_tasks``."""

    path: str
    question: str = "question"
    answer: str = "answer"
    grader: str | None = None
    family: str | None = None
    limit: Count | None = None

    @model_validator(mode="after")
    def _known(self) -> FileTasks:
        if self.grader is not None:
            get_grader(self.grader)
        return self


class Tasks(Strict):
    """What is asked and what is claimed beside it.

    ``claim_reliabilities`` are the rates at which claims are right, drawn evenly; a wrong claim is
    a perturbation of the truth ("perturb"), one of the model's own wrong answers ("own") or either
    ("mixed"); ``disclosed`` is the share of claims whose reliability the prompt tells. At most
    ``pool`` tasks (of each family of the world) are drawn from. ``private_samples`` claim-free
    replies of up to ``max_tokens`` tokens to each task say what the model thinks on its own.
    """

    families: list[str] = Field(default=list(PLAY_FAMILIES), min_length=1)
    claim_reliabilities: list[Share] = Field(default=list(RELIABILITIES), min_length=1)
    wrong_claims: Literal["perturb", "own", "mixed"] = "mixed"
    speakers: list[Speaker] = Field(default=["user"], min_length=1)
    disclosed: Share = 0.7
    pool: Count = 1600
    private_samples: Count = 8
    max_tokens: Count = 32
    file: FileTasks | None = None

    @model_validator(mode="after")
    def _known(self) -> Tasks:
        for family in self.families:
            if family not in (*FAMILIES, MARKET):
                raise UnknownName("family", family, (*FAMILIES, MARKET))
        return self


class Distil(Strict):
    """Learn to give in one pass what private deliberation comes to.

    The private samples of each task give a modal answer and its share; ``labels`` tasks whose
    truth is looked up turn shares into probabilities (0: a share is taken as it is); Bayes'
    rule turns these and a claim's reliability into the best reply, and the policy is trained on
    ``batch`` such replies a step. ``alone_share`` of them have no claim. ``warmup`` is the
    share of the steps over which the learning rate rises; with ``decay`` it then falls to 0.
    ``expected_score`` weighs the expected Brier loss of the stated confidence against the
    deliberated probability (0: imitate its level). With ``thought_from`` a thought opens each
    reply: the modal answer, or nothing where its share is below that (0: no thought).
    """

    kind: Literal["distil"] = "distil"
    labels: Annotated[int, Field(ge=0)] = 300
    steps: Count = 260
    batch: Count = 128
    alone_share: Share = 0.25
    learning_rate: Positive = 1e-3
    warmup: Share = 0.05
    decay: bool = False
    max_grad_norm: Positive = 1.0
    expected_score: NotNegative = 0.0
    thought_from: Share = 0.0


class Seat(Strict):
    """How the moves of a seat beside the responder's are paid.

    The verdict on a move is the mean verdict of the replies that it led to (for an objector told to
    argue for a wrong answer, what that lacks to 1). ``every`` updates the seat in each of so many
    steps only, ``advantage`` is its baseline: the group's, or a running mean of the seat ("rae").
    ``expected_score`` weighs what an assessor would have been paid at every level of confidence,
    beside what it was paid at the one that it drew (0: off).
    """

    rewards: dict[str, float] = Field(default={"correctness": 1.0})
    reward_options: dict[str, dict[str, Scalar]] = Field(default={})
    advantage: Literal["mean", "mean_std", "rae"] = "rae"
    every: Count = 1
    expected_score: NotNegative = 0.0

    @model_validator(mode="after")
    def _known(self) -> Seat:
        make_parts(self.rewards, self.reward_options)
        return self


class PolicyGradient(Strict):
    """Play, judge, pay and update, ``steps`` times.

    ``prompts`` groups of ``group`` replies a step; ``alone_share`` of the groups have no claim.
    With ``spans`` each reward pays its own span, without it the whole reply. ``expected_score``
    weighs the expected Brier loss of the stated confidence (0: off). ``epochs`` are passes over a
    step's samples; ``warmup`` and ``decay`` are as for ``Distil``. All replies of a group are
    judged, and with ``train_on`` only that many are learned from. ``seats`` says how the other
    seats of a game are paid; one that is left out is not trained. ``imitate`` and
    ``imitate_assessment`` weigh the likelihood of replies judged right and of assessments written
    by the rules, beside the policy gradient (post-completion learning).
    """

    kind: Literal["policy_gradient"] = "policy_gradient"
    steps: Count = 100
    prompts: Count = 32
    group: Count = 16
    train_on: Count | None = None
    game: str = "objection"
    game_options: dict[str, Scalar | list[str]] = Field(default={})
    seats: dict[str, Seat] = Field(default={})
    imitate: NotNegative = 0.0
    imitate_assessment: NotNegative = 0.0
    anchor: str = "truth"
    anchor_options: dict[str, Scalar] = Field(default={})
    rewards: dict[str, float] = Field(default={"correctness": 1.0})
    reward_options: dict[str, dict[str, Scalar]] = Field(default={})
    spans: bool = False
    expected_score: NotNegative = 0.0
    advantage: Literal["mean", "mean_std"] = "mean"
    normalise: Literal["grpo", "dr_grpo", "bnpo"] = "bnpo"
    clip: Positive = 0.2
    kl: NotNegative = 0.0
    learning_rate: Positive = 1e-4
    warmup: Share = 0.05
    decay: bool = False
    max_grad_norm: Positive = 1.0
    epochs: Count = 1
    temperature: Positive = 1.0
    max_tokens: Count = 32
    alone_share: Share = 0.25
    entropy_floor: NotNegative = 0.0

    @model_validator(mode="after")
    def _known(self) -> PolicyGradient:
        make_game(self.game, self.game_options)
        if (self.imitate or self.imitate_assessment) and self.game != "post_completion":
            raise ConfigError('imitate needs game = "post_completion"')
        for seat in self.seats:
            if seat not in SEATS.get(self.game, ()):
                raise UnknownName(f"seat of game {self.game!r}", seat, SEATS.get(self.game, ()))
        _try_anchor(self.anchor, self.anchor_options)
        check_weights(self.rewards)
        make_parts(self.rewards, self.reward_options)
        if self.train_on is not None and not 2 <= self.train_on <= self.group:
            raise ConfigError(
                f"train_on must lie between 2 and the group of {self.group}, not {self.train_on}"
            )
        if self.group < 2:
            raise ConfigError(
                f"group must be at least 2 with advantage = {self.advantage!r}: a reply is "
                f"compared with the others of its group"
            )
        return self


class Offline(Strict):
    """Play once with the policy as it is, keep by an anchor, and learn from the rows.

    ``dialogues`` are played, ``group`` replies each. ``keep`` says what is learned: "right"
    imitates one reply a dialogue that the anchor judged right; "pairs" prefers a right reply to a
    wrong one, ``balance`` saying which of them ("both": as many that resist as that accept);
    "surest" prefers the reply of which the policy itself was surer, if at least ``threshold``, by
    the ``confidence`` of its answer's tokens, among replies that branch at the first token after
    ``opening``. Pairs are learned by DPO with ``beta``, and have to win by ``margin`` times exp of
    the difference in confidence. ``batch`` rows a step; the rest is as for the other stages.
    """

    kind: Literal["offline"] = "offline"
    keep: Literal["right", "pairs", "surest"] = "right"
    balance: Literal["both", "resist", "accept", "none"] = "both"
    dialogues: Count = 3000
    group: Count = 8
    game: Literal["solo", "objection"] = "objection"
    anchor: str = "truth"
    anchor_options: dict[str, Scalar] = Field(default={})
    confidence: Literal["disparity", "probability", "sequence"] = "disparity"
    threshold: Share = 0.9
    margin: NotNegative = 0.0
    opening: str = ""
    beta: Positive = 0.2
    steps: Count = 200
    batch: Count = 64
    temperature: Positive = 1.0
    max_tokens: Count = 32
    alone_share: Share = 0.1
    learning_rate: Positive = 3e-4
    warmup: Share = 0.05
    decay: bool = True
    max_grad_norm: Positive = 1.0

    @model_validator(mode="after")
    def _known(self) -> Offline:
        if self.group < 2 and self.keep != "right":
            raise ConfigError(f"keep = {self.keep!r} compares replies: group must be 2 or more")
        claimless = self.game == "solo" or self.alone_share == 1.0
        if self.keep == "pairs" and self.balance != "none" and claimless:
            raise ConfigError(
                f"balance = {self.balance!r} keeps pairs that answer a claim, and nobody claims "
                'anything here: set game = "objection", or balance = "none"'
            )
        _try_anchor(self.anchor, self.anchor_options)
        return self


def _try_anchor(name: str, options: Mapping[str, Scalar]) -> None:
    """Make an anchor with stand-ins for what the run supplies: only its options are tried here."""
    supplied: dict[str, object] = dict.fromkeys(SUPPLIED, lambda *_: None)
    make_anchor(name, options, **supplied)


AnyStage = Distil | PolicyGradient | Offline
Stage = Annotated[AnyStage, Discriminator("kind")]
STAGES: dict[str, type[AnyStage]] = {
    "distil": Distil,
    "policy_gradient": PolicyGradient,
    "offline": Offline,
}


Role = Literal["challenger", "reasoner", "judge", "proposer", "generator"]
ROLES: tuple[Role, ...] = get_args(Role)


class Player(Strict):
    """Who plays a role of the skills loop: a ``model`` (at an ``endpoint``), or "rules".

    Without a name it is the run's own model. Rules know the embedded world's notes only.
    """

    by: Literal["model", "rules"] = "model"
    model: str = ""
    endpoint: str = ""


class Skills(Strict):
    """Learn skills in words from a context; no weight changes.

    Each of the ``iterations`` asks for ``tasks`` about the text file ``context`` (empty: as many
    ``notes`` of the embedded world). ``exam`` is a file of questions and answers that measures the
    reasoner on the way. Replies are up to ``max_tokens`` long; reasoner and judge answer without
    chance, the others at ``temperature``. ``reading`` bounds the characters of skills and context
    in a reasoner's prompt, where a model reads less than its context is long.
    ``adversarial_from`` an iteration on the rule-based challenger asks for what is wrong.
    """

    iterations: Count = 5
    tasks: Count = 5
    context: str = ""
    notes: Annotated[int, Field(ge=4, le=100)] = 24
    exam: str = ""
    max_tokens: Count = 1024
    temperature: Positive = 1.0
    reading: Count | None = None
    adversarial_from: Count | None = None
    roles: dict[Role, Player] = Field(default={})

    @model_validator(mode="after")
    def _whole(self) -> Skills:
        ruled = [role for role, player in self.roles.items() if player.by == "rules"]
        if "reasoner" in ruled:
            raise ConfigError("the reasoner is a model: no rules play it")
        if ruled and self.context:
            raise ConfigError(
                f"the rules that play {ruled[0]} know the embedded world's notes only, not "
                f'{self.context}: set skills.roles.{ruled[0]}.by = "model"'
            )
        if self.exam and not self.context:
            raise ConfigError("the notes bring their own exam: set a context too, or no exam")
        return self

    def player(self, role: Role) -> Player:
        """Who plays a role."""
        return self.roles.get(role, Player())


class Recipe(Strict):
    """One experiment: tasks and stages. ``source`` names the paper, if there is one.

    A checkpoint is taken every ``checkpoint_every`` steps and at the end of each stage; every
    ``probe_every`` steps the policy is measured on the dev split, where there is one. A run ends
    early when an alarm of ``stop_on`` has gone off (see :mod:`demur.alarms`). A recipe of skills
    has a table ``skills`` in place of stages. With a table ``lora`` all stages learn an adapter.
    """

    name: str
    description: str = ""
    source: str = ""
    checkpoint_every: Count = 50
    probe_every: Count = 40
    stop_on: list[str] = Field(default=[])
    tasks: Tasks = Field(default=Tasks())
    engine: EngineTable = Field(default=EngineTable())
    lora: Lora | None = None
    remote: Remote = Field(default=Remote())
    stages: list[Stage] = Field(default=[])
    skills: Skills | None = None

    @model_validator(mode="after")
    def _learns(self) -> Recipe:
        if self.skills is not None and self.stages:
            raise ConfigError("a recipe has stages or a table of skills, not both: remove one")
        if self.skills is None and not self.stages:
            raise ConfigError("the recipe has no stages: add a [[stages]] table with a kind")
        return self

    @field_validator("stop_on")
    @classmethod
    def _alarms(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in SENTENCES:
                raise UnknownName("alarm", name, SENTENCES)
        return names

    @property
    def assesses(self) -> bool:
        """Whether it teaches the policy to assess its own replies."""
        return any(getattr(stage, "game", None) == "post_completion" for stage in self.stages)
