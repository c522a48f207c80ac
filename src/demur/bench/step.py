"""A whole training step: sample, read, pay, update; beside TRL's GRPOTrainer.

Both sides see the same prompts as text, draw as many tokens, are paid by the same function of the
reply's text, and take one AdamW step. TRL is at its best: one micro-batch, no checkpointing, no
reference model, no logging; on a CPU no bfloat16, which is slower there. Its steps are timed from
inside, by a callback, and ours runs between two of them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import torch
from transformers import TrainerCallback

from demur.bench.beside import Found, row, timed
from demur.bench.cases import LOSS, SHAPES, Case, build, learner, prompts, words
from demur.engine.options import Engine
from demur.engine.settings import place
from demur.errors import ConfigError
from demur.policies.local import LocalPolicy
from demur.schema import Message, Sample, Sampling


def asked(case: Case, vocabulary: int) -> list[str]:
    """The case's prompts as text of one word a token."""
    return [" ".join(f"w{i}" for i in row) for row in prompts(case, vocabulary)]


def paid(text: str) -> float:
    """The share of even words: different for almost every reply."""
    drawn = [word for word in text.split() if word.startswith("w")]
    return sum(int(word[1:]) % 2 == 0 for word in drawn) / max(len(drawn), 1)


def own_step(policy: LocalPolicy, case: Case, texts: list[str], seed: int) -> None:
    """One step of ours: replies, rewards, advantages within the group, update."""
    questions = [(Message("user", text),) for text in texts]
    rows = policy.reply(questions, case.group, Sampling(1.0, case.completion, seed))
    samples = []
    for group, replies in enumerate(rows):
        rewards = [paid(c.text) for c in replies]
        mean, spread = statistics.fmean(rewards), statistics.pstdev(rewards) + 1e-4
        for c, reward in zip(replies, rewards, strict=True):
            credit = ((reward - mean) / spread,) * len(c.token_ids)
            samples.append(Sample(c.prompt_ids, c.token_ids, c.logprobs, credit, group))
    assert len(samples) == case.replies
    assert all(len(s.completion_ids) == case.completion for s in samples)
    policy.update(samples, LOSS)


class _Between(TrainerCallback):
    """Times TRL's steps, and ours between them; the first of each is a warm-up."""

    def __init__(self, policy: LocalPolicy, case: Case, texts: list[str]) -> None:
        self.policy, self.case, self.texts = policy, case, texts
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.started = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.theirs.append(time.perf_counter() - self.started)
        seed = len(self.ours)
        self.ours.append(timed(lambda: own_step(self.policy, self.case, self.texts, seed)))


def trainer(
    size: str, case: Case, steps: int, device: str, folder: str, callbacks: list[TrainerCallback]
) -> Any:
    """TRL's trainer for a case; raises ``ConfigError`` where TRL is not installed."""
    try:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        raise ConfigError(
            "a whole step is measured beside TRL: pip install 'demur[bench]', or leave it out "
            "with --measure"
        ) from error
    shape = SHAPES[size]
    on_gpu = place(Engine(device)).type == "cuda"

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [paid(text) for text in completions]

    config = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=case.replies,
        num_generations=case.group,
        max_completion_length=case.completion,
        max_steps=steps,
        learning_rate=1e-9,
        temperature=1.0,
        beta=0.0,
        generation_kwargs={"min_new_tokens": case.completion},
        gradient_checkpointing=False,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
    )
    data = Dataset.from_dict({"prompt": asked(case, shape.vocabulary)})
    return GRPOTrainer(
        model=build(shape),
        reward_funcs=reward,
        args=config,
        train_dataset=data,
        processing_class=words(shape.vocabulary),
        callbacks=callbacks,
    )


def step(size: str, case: Case, repeats: int, device: str) -> Found:
    """Seconds of a whole step against TRL's."""
    shape = SHAPES[size]
    between = _Between(learner(shape, True, device), case, asked(case, shape.vocabulary))
    with tempfile.TemporaryDirectory() as folder:
        trainer(size, case, repeats + 1, device, folder, [between]).train()
    a, b = (statistics.median(times[1:]) for times in (between.ours, between.theirs))
    return row("TRL GRPOTrainer", a, b, b / a, "s")
