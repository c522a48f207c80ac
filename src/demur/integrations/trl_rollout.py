"""The objection game as a ``rollout_func`` of TRL's GRPOTrainer (``pip install 'demur[trl]'``).

    rows = objection_rows(draws)  # or the dataset of demur export RUN --format trl-grpo
    GRPOTrainer(
        rollout_func=ObjectionRollout(rows),
        train_dataset=datasets.Dataset.from_list(rows),
        reward_funcs=..., ...
    )

TRL (1.16) hands a rollout the prompts of a batch and nothing else of their rows, each prompt as
often as it wants replies: ``num_generations`` times in a row, all in one list. So the rollout is
given the rows beforehand, and a prompt is the key by which its row is found. What the model reads
is the dialogue that the game makes of the row's ``exchange`` (see
:func:`demur.games.rounds.draw_json`), not the prompt; in rows of demur's the two say the same.

What this brings beside TRL's own generation, which would ask the same question: a prompt is read
once for all of its replies, replies keep every token that demur's own loop would see, a template
without a system role will do, and any anchor may judge, one that looks at tokens too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from demur.anchors import Anchor
from demur.anchors.own_confidence import OwnConfidence
from demur.engine.attention import NAME
from demur.engine.options import Engine
from demur.engine.probe import use_tree
from demur.errors import ConfigError
from demur.games import objection
from demur.games.phrases import ask, object_to
from demur.games.rounds import Draw, draw_json, draw_of
from demur.integrations.trl import OBJECTION, judge_episodes
from demur.policies.local import LocalPolicy
from demur.runlog import dialogue_json
from demur.schema import Completion, Episode, Row, Sampling

try:
    from trl.models import unwrap_model_for_generation
except ModuleNotFoundError as error:
    raise ConfigError("this needs TRL: pip install 'demur[trl]'") from error

PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0}
"""Settings of ``GRPOConfig`` under which TRL samples by temperature alone, as demur does."""
UNREAD = ("generation_kwargs", "chat_template_kwargs")


def objection_rows(draws: Iterable[Draw]) -> list[Row]:
    """A dataset's rows for (task, claim or None) draws, the same dialogue once.

    Columns: ``prompt`` (messages), ``task_id``, ``question``, ``truth``, ``grader``, ``family``,
    ``claim``, ``claim_right``, ``exchange``, as in an export. Raises ``ConfigError`` for two draws
    that make one dialogue and are not judged alike.
    """
    kept: dict[str, Draw] = {}
    for draw in draws:
        task, claim = draw
        prompt = dialogue_json(ask(task) if claim is None else object_to(task, claim))
        _check_alike(kept.setdefault(prompt, draw), draw, prompt)
    return [{"prompt": json.loads(prompt), **_columns(draw)} for prompt, draw in kept.items()]


class ObjectionRollout:
    """Plays the objection game with the model that TRL trains; to be given as ``rollout_func``.

    ``rows`` are mappings with ``prompt`` (text or messages) and ``exchange``, those of the train
    and the eval dataset together. With an ``anchor`` each reply is judged here, and its verdict
    forwarded. Raises ``ConfigError`` for rows without these columns, or of which two have one
    prompt and are not judged alike.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], anchor: Anchor | None = None) -> None:
        self.anchor = anchor
        self._draws: dict[object, Draw] = {}
        self._tree: bool | None = None
        for row in rows:
            if "prompt" not in row or "exchange" not in row:
                raise ConfigError(
                    "the rows of the objection game need the columns prompt and exchange: export "
                    "them with `demur export RUN --format trl-grpo`, or make them with "
                    "objection_rows"
                )
            key, draw = _key(row["prompt"]), draw_of(row["exchange"])
            _check_alike(self._draws.setdefault(key, draw), draw, row["prompt"])

    def __call__(self, prompts: Sequence[object], trainer: Any) -> dict[str, list[Any]]:
        """One reply a prompt, in order; equal prompts get replies of their own.

        Returns token ids ``prompt_ids`` and ``completion_ids``, ``logprobs`` (nats, of each token
        of the completion at the trainer's temperature), and for the rewards ``reply_text``,
        ``game``, the columns of ``objection_rows`` and, with an anchor, ``verdict``. A prompt that
        leaves no room in the model's context is cut and gets an empty reply: one token, kept out of
        the loss by ``env_mask``.
        Raises ``ConfigError`` for a prompt of no row and for settings that demur cannot play by.
        """
        _check(trainer)
        draws = [self._draw(prompt) for prompt in prompts]
        # torch's generator, as in TRL's own generation: each process has its own, checkpoints
        # keep it, and a resumed run goes on from there.
        seed = int(torch.randint(2**31, ()).item())
        gaps = isinstance(self.anchor, OwnConfidence)
        sampling = Sampling(trainer.temperature, trainer.max_completion_length, seed, gaps=gaps)
        with _borrowed(trainer) as model:
            policy = self._policy(model, trainer)
            groups = objection.play(policy, draws, 1, sampling)
        episodes = [group.episodes[0] for group in groups]
        return self._told(episodes, policy)

    def _draw(self, prompt: object) -> Draw:
        found = self._draws.get(_key(prompt))
        if found is None:
            raise ConfigError(
                f"the prompt {prompt!r} is of no row that the rollout was given; give it the rows "
                "of the train and the eval dataset"
            )
        return found

    def _policy(self, model: PreTrainedModel, trainer: Any) -> LocalPolicy:
        """A policy of this call alone: what one remembers of a prompt is of weights now gone."""
        model.eval()
        if self._tree is None:
            self._tree = use_tree(model)
        elif self._tree:
            model.set_attn_implementation(NAME)
        engine = Engine(
            device=str(model.device), precision="bfloat16" if trainer.args.bf16 else "float32"
        )
        return LocalPolicy(model, _tokenizer(trainer), shared_prefix=self._tree, engine=engine)

    def _told(self, episodes: Sequence[Episode], policy: LocalPolicy) -> dict[str, list[Any]]:
        said: list[Completion] = [episode.turns[-1].completion for episode in episodes]
        filler, room = policy.tokenizer.eos_token_id, policy.context - 1
        told: dict[str, list[Any]] = {
            # What is longer than the model can read has no reply, and is kept out of the loss.
            "prompt_ids": [list(c.prompt_ids[-room:]) for c in said],
            "completion_ids": [list(c.token_ids) or [filler] for c in said],
            "logprobs": [list(c.logprobs) or [0.0] for c in said],
            "reply_text": [c.text for c in said],
            "game": [OBJECTION] * len(said),
        }
        if not all(c.token_ids for c in said):
            told["env_mask"] = [[1] * len(c.token_ids) or [0] for c in said]
        columns = [_columns((episode.task, episode.claim)) for episode in episodes]
        told |= {name: [row[name] for row in columns] for name in (columns[0] if columns else ())}
        if self.anchor is not None:
            told["verdict"] = list(judge_episodes(self.anchor, episodes))
        return told


@contextmanager
def _borrowed(trainer: Any) -> Iterator[PreTrainedModel]:
    """The model under whatever TRL has put around it, and afterwards all of it as it was."""
    with unwrap_model_for_generation(
        trainer.model_wrapped,
        trainer.accelerator,
        gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
        gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
    ) as whole:
        whole = getattr(whole, "_orig_mod", whole)  # of torch.compile
        model = whole if isinstance(whole, PreTrainedModel) else _under_adapter(whole)
        training = [(module, module.training) for module in whole.modules()]
        attention = model.config._attn_implementation
        # Accelerate's mixed precision rounds inside of forward, even where the engine's probe
        # compares exact numbers; the engine rounds as much by itself.
        exact = vars(model).get("_original_forward")
        rounding = None if exact is None else model.forward
        try:
            if exact is not None:
                model.forward = exact
            yield model
        finally:
            if rounding is not None:
                model.forward = rounding
            for module, was in training:
                module.training = was
            if model.config._attn_implementation != attention:
                model.set_attn_implementation(attention)


def _under_adapter(whole: Any) -> PreTrainedModel:
    """The model that an adapter of peft is built into; it computes with it."""
    if whole.active_peft_config.is_prompt_learning:
        raise ConfigError(
            "the rollout cannot play with learned prompts, which are no part of the model; train "
            "a LoRA adapter, or leave the rollout out of GRPOTrainer"
        )
    found: PreTrainedModel = whole.get_base_model()
    return found


def _check(trainer: Any) -> None:
    args = trainer.args
    if is_deepspeed_zero3_enabled() and not args.ds3_gather_for_generation:
        raise ConfigError(
            "the rollout needs the whole model on each process: leave ds3_gather_for_generation "
            "on, or leave the rollout out of GRPOTrainer"
        )
    changed = [name for name, plain in PLAIN.items() if getattr(args, name) not in (plain, None)]
    changed += [name for name in UNREAD if getattr(args, name)]
    if changed:
        raise ConfigError(
            f"demur samples by temperature alone and with the template as it is; leave "
            f"{', '.join(changed)} out of GRPOConfig, or the rollout out of GRPOTrainer"
        )
    if trainer.is_fsdp_enabled:
        raise ConfigError(
            "the rollout needs the whole model on each process, which FSDP does not keep; train "
            "without FSDP, or leave the rollout out of GRPOTrainer"
        )


def _tokenizer(trainer: Any) -> Any:
    processing = trainer.processing_class
    return getattr(processing, "tokenizer", processing)


def _key(prompt: object) -> object:
    """What two prompts have in common that say the same."""
    if isinstance(prompt, str):
        return prompt
    messages = prompt if isinstance(prompt, Sequence) else ()
    return tuple((m["role"], json.dumps(m["content"])) for m in messages)


def _check_alike(one: Draw, other: Draw, prompt: object) -> None:
    if _facts(one) != _facts(other):
        raise ConfigError(
            f"two rows have the prompt {prompt!r} and different truths or claims; keep one of them"
        )


def _facts(draw: Draw) -> tuple[str | None, str, str | None]:
    task, claim = draw
    return task.truth, task.grader, None if claim is None else claim.answer


def _columns(draw: Draw) -> Row:
    task, claim = draw
    return {
        "task_id": task.id,
        "question": task.question,
        "truth": task.truth,
        "grader": task.grader,
        "family": task.family,
        "claim": None if claim is None else claim.answer,
        "claim_right": None if claim is None else claim.right,
        "exchange": draw_json(task, claim),
    }
