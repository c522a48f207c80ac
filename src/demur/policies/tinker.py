"""A model on an engine elsewhere that speaks the Tinker protocol: it samples there, and learns.

The engine holds the weights, trains a LoRA adapter and takes the optimiser's steps; here are the
tokens, the games, the rewards and what of them is sent (``demur.policies.datums``). Requests are
sent ahead of their answers: all prompts of a round at once; the gradients of one half of a round
while the other half is scored; then the step and the new weights for sampling, without a pause
between them. A checkpoint names the engine's own (weights and optimiser), from which a run goes on,
and holds the adapter in peft's layout, which loads like any model folder.

What differs from a ``LocalPolicy``: the moments of Adam go on from stage to stage; an engine's
losses know temperature 1 only, so replies drawn at another are weighed as if drawn at 1; engines
that know no limit on the gradient's norm take none.
"""

from __future__ import annotations

import uuid
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from demur.engine.options import Engine
from demur.errors import ConfigError, EngineError, TrainingError
from demur.learners.policy_gradient import PolicyGradient, Supervised
from demur.learners.schedule import Schedule
from demur.policies.connection import Connection, apart
from demur.policies.datums import (
    Draw,
    Fed,
    Name,
    Request,
    feed_gradient,
    feed_supervised,
    figures,
)
from demur.policies.engine_files import fetch_adapter, read_facts, words, write_facts
from demur.policies.tokens import Tokens, stops
from demur.schema import Completion, Dialogue, Sample, Sampling, Stats
from demur.tables import Remote

DEFAULT = Engine()
RANK = 16
ALPHA = 32
"""What engines scale every adapter by, over its rank; the protocol has no word for it."""
BETAS, EPS = (0.9, 0.95), 1e-8
Drawn = tuple[tuple[int, ...], tuple[float, ...], bool]
"""Tokens, their log-probabilities, and whether the reply came to an end."""


class EngineWarning(UserWarning):
    """An engine does something other than a local policy would."""


class TinkerPolicy(Tokens):
    """A model at an engine, and its adapter there.

    ``model`` is the engine's name of it or a folder that both can read; ``engine`` says how other
    models that take part are computed here. Raises ``EndpointError``
    where the engine is not there or does not have it.
    """

    waves = 2

    def __init__(
        self,
        connection: Connection,
        model: str,
        *,
        seed: int = 0,
        remote: Remote | None = None,
        name: str = "engine",
        engine: Engine = DEFAULT,
    ) -> None:
        self.connection, self.model = connection, connection.named(model)
        self.seed, self.remote = seed, remote or Remote()
        tokenizer, ends, limit = words(self.model)
        super().__init__(tokenizer, name, stops(ends, tokenizer), limit)
        self.engine = engine
        self.version, self.taken, self.rank = 0, 0, RANK
        reduction = self.remote.reduction
        self.sums = not connection.skyrl if reduction == "auto" else reduction == "sum"
        self._types = connection.tinker.types
        self._frozen, self._warned = False, False
        self._adapter: Any = None
        self._begin = ""  # the engine's checkpoint that the adapter begins as
        self._release: Any = None  # gives its place at the engine back, once
        self._sampler: Future[Any] | None = None
        self._spoke = False  # since the last update
        self._schedule: Schedule | None = None
        self._max_norm = 0.0
        self._fed: list[Fed] = []
        self._answers: list[tuple[Request, Any]] = []
        self._ahead = 0  # samples of the step that were sent already

    # -- speaking ---------------------------------------------------------------------------------

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """``n`` completions a dialogue; all prompts are sent at once.

        A prompt that leaves no room in the context gives empty completions that stopped by length.
        Raises ``EngineError`` for what an engine cannot give (gaps between tokens, branches).
        """
        if sampling.gaps or sampling.branch:
            raise EngineError(
                "an engine gives the log-probabilities of drawn tokens only, not of others beside "
                "them: use an anchor that needs none, or train with --policy local"
            )
        prompts = [self.prompt_ids(d) for d in dialogues]
        opening = self.opening_ids(sampling)
        room = self.with_room(prompts, sampling)
        drawn = self._draw([(*prompts[i], *opening) for i in room], n, sampling)
        rows: list[list[Drawn]] = [[((), (), False)] * n for _ in prompts]
        for i, found in zip(room, drawn, strict=True):
            rows[i] = found
        return [
            [self._completion(prompt, opening, sampling.opening, row) for row in found]
            for prompt, found in zip(prompts, rows, strict=True)
        ]

    def _draw(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: Sampling
    ) -> list[list[Drawn]]:
        sampler, self._spoke = self._voice(), True
        rng = np.random.default_rng([sampling.seed, self.version])
        futures = []
        for prompt, seed in zip(prompts, rng.integers(2**30, size=len(prompts)), strict=True):
            settings = self._types.SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                seed=int(seed),
                stop=sorted(self.stop_ids),
            )
            sent = self._types.ModelInput.from_ints(list(prompt))
            futures.append(sampler.sample(sent, n, settings))
        return [
            [(tuple(r.tokens), tuple(r.logprobs or ()), r.stop_reason == "stop") for r in rows]
            for rows in (self.connection.wait(future).sequences for future in futures)
        ]

    def _completion(
        self,
        prompt: tuple[int, ...],
        opening: tuple[int, ...],
        opened: str,
        row: Drawn,
    ) -> Completion:
        ids, logprobs, stopped = row
        if len(logprobs) != len(ids):
            raise EngineError(
                f"the engine at {self.connection.url} gave {len(logprobs)} log-probabilities for "
                f"{len(ids)} tokens; use one that gives them all"
            )
        body = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        return Completion(
            opened + self._decode([body])[0] if ids else "",
            (*opening, *ids) if ids else (),
            (*(0.0,) * len(opening), *logprobs) if ids else (),
            "stop" if stopped else "length",
            prompt,
            self.version,
        )

    def _voice(self) -> Any:
        """The client that samples from the weights as they are."""
        if self._sampler is None:
            trained = self._trained()
            self._sampler = apart(trained.save_weights_and_get_sampling_client)
        return self.connection.wait(self._sampler)

    def _trained(self) -> Any:
        """The client of the adapter, which is made when it is first needed."""
        if self._adapter is None:
            service, link = self.connection.service, self.connection
            made = apart(
                service.create_lora_training_client,
                base_model=self.model,
                rank=self.rank,
                seed=self.seed,
            )
            adapter = link.wait(made)
            self._release = weakref.finalize(self, link.release, adapter.model_id)
            if self._begin:
                link.wait(adapter.load_state_with_optimizer(self._begin))
            self._adapter = adapter
        return self._adapter

    # -- learning ---------------------------------------------------------------------------------

    def adapt(
        self, rank: int, alpha: float | None = None, targets: Sequence[str] = (), seed: int = 0
    ) -> None:
        """Choose the adapter's rank; an engine chooses its scale and its layers itself."""
        if targets or alpha not in (None, ALPHA):
            raise ConfigError(
                f"an engine chooses an adapter's layers itself and scales it by {ALPHA} over its "
                "rank: leave lora.targets and lora.alpha out, or train with --policy local"
            )
        self.rank, self.seed = rank, seed

    def optimise(
        self, learning_rate: float, *, warmup: int = 0, decay: int = 0, max_grad_norm: float = 1.0
    ) -> None:
        """Start the schedule of a stage; the engine's Adam goes on."""
        self._schedule = Schedule(learning_rate, warmup, decay)
        self._max_norm, self.taken = max_grad_norm, 0

    def keep_reference(self) -> None:
        """Refused: no engine here compares its log-probabilities with those of another policy."""
        raise ConfigError(
            "an engine keeps no reference policy: leave out what is tied to one, or train with "
            "--policy local"
        )

    def learn_post_completion(self) -> None:
        """Nothing, where the model has the token; it cannot be given to one that has not."""
        if self.post_id is None:
            raise ConfigError(
                f"the model {self.model} has no token at which a reply ends and its assessment "
                "begins, and an engine cannot add one: train with --policy local"
            )

    def feed(self, samples: Sequence[Sample], loss: Any) -> None:
        """Send the gradients' work for the first samples of a step, without waiting for it."""
        fed = self._in_words(samples, loss)
        trained = self._trained()
        for request in fed.requests:
            if self.connection.skyrl and self.sums and self._answers:
                earlier, answer = self._answers[-1]
                if earlier.loss != request.loss:  # its backends that add up compute one at a time
                    self.connection.wait(answer)
            data = [d.sent(self._types, request.loss) for d in request.datums]
            answer = trained.forward_backward(data, request.loss, request.config or None)
            self._answers.append((request, answer))
        self._fed.append(fed)
        self._ahead += len(samples)

    def _in_words(self, samples: Sequence[Sample], loss: Any) -> Fed:
        if isinstance(loss, PolicyGradient):
            if loss.temperature != 1.0 and not self._warned:
                self._warned = True
                warnings.warn(
                    f"an engine's losses know temperature 1 only: replies drawn at "
                    f"{loss.temperature:g} are weighed as if drawn at 1",
                    EngineWarning,
                    stacklevel=3,
                )
            name: Name = self.remote.loss
            return feed_gradient(samples, loss, name, self.sums)
        if isinstance(loss, Supervised):
            return feed_supervised(samples, self._levels(samples), self.sums)
        raise ConfigError(
            f"an engine has no loss for {type(loss).__name__}: train with --policy local"
        )

    def _levels(self, samples: Sequence[Sample]) -> list[Draw]:
        """What the policy would state where a demonstration's confidence is scored."""
        scored = [s for s in samples if s.expected_score is not None]
        if not scored:
            return []
        prompts = []
        for sample in scored:
            assert sample.expected_score is not None
            prompts.append(
                (*sample.prompt_ids, *sample.completion_ids[: sample.expected_score.position])
            )
        found = self._draw(prompts, self.remote.draws, Sampling(1.0, 1, self.taken))
        return [
            Draw(sample, tuple(ids[0] for ids, _, _ in rows), tuple(lp[0] for _, lp, _ in rows))
            for sample, rows in zip(scored, found, strict=True)
            if all(ids and lp for ids, lp, _ in rows)
        ]

    def update(self, samples: Sequence[Sample], loss: Any) -> Stats:
        """One optimiser step on all samples, of which the first may have been fed already.

        Raises ``TrainingError`` where the engine's figures are not finite: its weights are then
        spoiled, and the last checkpoint is not.
        """
        if self._schedule is None:
            raise TrainingError("call optimise(learning_rate) before update")
        rest = samples[self._ahead :]
        if rest:
            self.feed(rest, loss)
        self._ahead = 0
        fed, self._fed = self._fed, []
        answers, self._answers = self._answers, []
        if not answers:
            return {"samples": 0.0}
        whole = sum(part.whole for part in fed)
        unit = whole / (1 if self.sums else sum(part.count for part in fed))
        trained = self._trained()
        stepped = trained.optim_step(
            self._types.AdamParams(
                learning_rate=self._schedule.at(self.taken),
                beta1=BETAS[0],
                beta2=BETAS[1],
                eps=EPS * unit,  # beside a gradient that is so many times ours
                grad_clip_norm=self._max_norm * unit,
            )
        )
        self._sampler = None
        if self._spoke:  # it will again, and should not have to wait then
            self._sampler = apart(trained.save_weights_and_get_sampling_client)
        self._spoke = False
        answered = [(request, self.connection.wait(answer)) for request, answer in answers]
        stats = figures(answered, whole)
        metrics = self.connection.wait(stepped).metrics or {}
        norms = [value for key, value in metrics.items() if key.endswith("grad_norm")]
        if norms:
            stats["grad_norm"] = norms[0] / unit
        if not all(np.isfinite(value) for value in stats.values()):
            raise TrainingError(
                f"the engine's figures became {stats}; lower the learning rate and go on from the "
                "last checkpoint, with a new --out"
            )
        self.taken += 1
        self.version += 1
        return stats | {"samples": float(len(samples))}

    def snapshot(self) -> TinkerPolicy:
        """A frozen copy: the engine's checkpoint now, and an adapter of its own once it speaks."""
        saved = self.connection.wait(self._trained().save_state(f"past-{uuid.uuid4().hex[:8]}"))
        return self._at(saved.path, f"{self.name}@{self.version}", self.version)

    def _at(self, path: str, name: str, version: int) -> TinkerPolicy:
        past = TinkerPolicy(
            self.connection,
            self.model,
            seed=self.seed,
            remote=self.remote,
            name=name,
            engine=self.engine,
        )
        past.rank, past.version, past._begin, past._frozen = self.rank, version, path, True
        return past

    def follow(self, other: Any, share: float) -> None:
        """Refused: no engine here averages weights."""
        raise ConfigError(
            "an engine does not average weights: set anchor_options.average to 0, or train with "
            "--policy local"
        )

    # -- files ------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Name the engine's checkpoint, and write the adapter and the tokenizer into a folder."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        if self._frozen:
            self._write(path, self._begin)
            return
        name = f"step-{self.version}-{uuid.uuid4().hex[:8]}"
        trained = self._trained()
        state = trained.save_state(name)
        weights = trained.save_weights_for_sampler(name)
        self._write(path, self.connection.wait(state).path)
        fetch_adapter(self.connection, self.connection.wait(weights).path, self.model, path)
        self.tokenizer.save_pretrained(path)

    def _write(self, path: Path, state: str) -> None:
        write_facts(
            path,
            url=self.connection.url,
            model=self.model,
            rank=self.rank,
            state=state,
            version=self.version,
            taken=self.taken,
        )

    def load(self, folder: str | Path) -> None:
        """Begin again as a checkpoint that was saved on this engine.

        Raises ``EndpointError`` at once where the engine does not have it.
        """
        facts = read_facts(Path(folder))
        self.rank, self.version = int(facts["rank"]), int(facts["version"])
        if self._release is not None:
            self._release()
        self._begin, self._adapter, self._sampler = str(facts["state"]), None, None
        self._trained()

    def load_optimiser(self, folder: str | Path) -> None:
        """Go on with the schedule; the moments came with the weights."""
        self.taken = int(read_facts(Path(folder))["taken"])

    def recall(self, folder: str | Path, name: str) -> TinkerPolicy:
        """A snapshot from where it was saved."""
        facts = read_facts(Path(folder))
        return self._at(str(facts["state"]), name, int(facts["version"]))
