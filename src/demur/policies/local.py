"""A Hugging Face causal model in this process: it samples, learns, and saves itself.

Any standard folder serves (safetensors weights, a tokenizer with a chat template); no remote code
is ever run. The model knows tokens; everything above it speaks dialogues.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from demur.engine import adapter, sampler
from demur.engine.adapter import EarlierAdapter
from demur.engine.history import History
from demur.engine.options import Engine
from demur.engine.probe import use_tree
from demur.engine.settings import autocast, keep_memory, out_of_memory, place
from demur.errors import ConfigError, EngineError, ModelFolderError, TrainingError
from demur.learners.optimise import Loss, Optimiser, Reference, set_checkpointing
from demur.policies.folder import check_model_folder
from demur.policies.tokens import Tokens, stops
from demur.reply import POST_COMPLETION
from demur.schema import Completion, Dialogue, Sample, Sampling, Stats

DEFAULT = Engine()
REFERENCE = "reference.safetensors"


class VocabularyWarning(UserWarning):
    """A model was given a token."""


class LocalPolicy(Tokens):
    """A causal language model and its optimiser."""

    waves = 1  # sampling and scoring would share the same cores

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "local",
        *,
        shared_prefix: bool | None = None,
        engine: Engine = DEFAULT,
    ) -> None:
        self.engine = engine
        self.model = model.eval().to(place(engine))
        set_checkpointing(self.model, engine.checkpointing)
        limit = getattr(model.config, "max_position_embeddings", None)
        super().__init__(tokenizer, name, stops(model.generation_config, tokenizer), limit)
        self.version = 0
        self.shared_prefix = use_tree(model) if shared_prefix is None else shared_prefix
        self.reference: Reference | None = None
        self.base = ""  # the digest of the weights that an adapter is worn on
        self.optimiser: Optimiser | None = None
        self._history = History(2 * engine.sample_tokens)  # a full batch is padded a little
        self._sample_tokens = engine.sample_tokens

    @classmethod
    def from_folder(
        cls, folder: str | Path, name: str | None = None, engine: Engine = DEFAULT
    ) -> LocalPolicy:
        """Load a model folder in float32, or an adapter with the base that it names.

        Raises ``ModelFolderError`` with the fix.
        """
        path = Path(folder)
        check_model_folder(path)
        digest = ""
        if (path / adapter.CONFIG).is_file():
            base, digest = adapter.check_adapter(path)
            check_model_folder(base)
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
            model, loading = loaded
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        except Exception as error:  # every way in which a foreign folder can be broken
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelFolderError(
                f"cannot load the model in {path}: {first}; copy the folder again whole"
            ) from error
        if loading["missing_keys"]:  # they would be filled with random numbers
            absent = sorted(loading["missing_keys"])[0]
            raise ModelFolderError(
                f"the weights in {path} lack {absent}; copy the folder again whole"
            )
        if digest and loading["unexpected_keys"]:
            beyond = sorted(loading["unexpected_keys"])[0]
            raise ModelFolderError(
                f"the adapter in {path} was made for another model than the one in {base}, which "
                f"has no {beyond}; set base_model_name_or_path in its {adapter.CONFIG}"
            )
        if tokenizer.eos_token_id is None:
            raise ModelFolderError(
                f"the tokenizer in {path} has no end-of-sequence token; set eos_token in its "
                "tokenizer_config.json"
            )
        if not tokenizer.chat_template:
            raise ModelFolderError(
                f"the tokenizer in {path} has no chat template; use an instruction-tuned model "
                "or add chat_template.jinja to the folder"
            )
        policy = cls(model, tokenizer, name or path.name, engine=engine)
        if digest:
            adapter.free_adapter(model)
            policy.base = digest
        return policy

    # -- speaking ---------------------------------------------------------------------------------

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """``n`` completions a dialogue.

        A prompt that leaves no room in the context gives empty completions that stopped by length:
        data, not an error, with one warning.
        """
        prompts = [self.prompt_ids(d) for d in dialogues]
        opening = self.opening_ids(sampling)
        room = self.with_room(prompts, sampling)
        drawn = self._draw([(*prompts[i], *opening) for i in room], n, sampling)
        empty = [
            [Completion("", stop="length", prompt_ids=p, policy_version=self.version)] * n
            for p in prompts
        ]
        texts = self._texts([row for rows in drawn for row in rows])
        for i, rows in zip(room, drawn, strict=True):
            empty[i] = [
                Completion(
                    sampling.opening + next(texts),
                    (*opening, *row.ids),
                    (*(0.0,) * len(opening), *row.logprobs),
                    "stop" if row.stopped else "length",
                    prompts[i],
                    self.version,
                    (*(0.0,) * len(opening), *row.gaps) if sampling.gaps else (),
                )
                for row in rows
            ]
        return empty

    def _draw(
        self, prompts: Sequence[tuple[int, ...]], n: int, sampling: Sampling
    ) -> list[list[sampler.Drawn]]:
        """Sample; where memory runs out, again with half the token budget."""
        while True:
            try:
                with autocast(self.engine, self.model.device):
                    return sampler.sample(
                        self.model,
                        prompts,
                        n,
                        sampling,
                        stop_ids=self.stop_ids,
                        shared=self.shared_prefix,
                        budget=self._sample_tokens,
                        history=self._history,
                    )
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                needed = max(map(len, prompts)) + sampling.max_tokens
                if self._sample_tokens // 2 < needed:
                    raise EngineError(
                        f"out of memory while sampling a reply of {needed} tokens with its prompt; "
                        "ask for fewer tokens or use a smaller model"
                    ) from error
            self._history.clear()
            self._sample_tokens //= 2
            self._history.budget //= 2
            warnings.warn(
                f"out of memory while sampling; going on with a budget of {self._sample_tokens} "
                "tokens",
                RuntimeWarning,
                stacklevel=3,
            )

    def _texts(self, rows: Sequence[sampler.Drawn]) -> Iterator[str]:
        bodies = [row.ids[:-1] if row.stopped else row.ids for row in rows]
        distinct = {tuple(body) for body in bodies}
        texts = dict(zip(distinct, self._decode(list(distinct)), strict=True))
        return iter([texts[tuple(body)] for body in bodies])

    # -- learning ---------------------------------------------------------------------------------

    def adapt(
        self, rank: int, alpha: float | None = None, targets: Sequence[str] = (), seed: int = 0
    ) -> None:
        """Learn a LoRA adapter from now on, and nothing else; see ``demur.engine.adapter``.

        ``alpha`` is twice the rank if left out; ``seed`` is of its first weights. Raises
        ``ConfigError``, and ``ModelFolderError`` for a model that came from no folder.
        """
        if adapter.adapted(self.model):
            raise ConfigError(
                f"{self.name} already wears an adapter, which learns on as it is: leave lora out"
            )
        home = Path(self.model.name_or_path)
        if not self.model.name_or_path or not home.is_dir():
            raise ModelFolderError("an adapter needs a base in a folder, to be worn on again")
        adapter.attach(self.model, rank, alpha or 2 * rank, targets, seed)
        self.base = adapter.weights_digest(home)

    def optimise(
        self, learning_rate: float, *, warmup: int = 0, decay: int = 0, max_grad_norm: float = 1.0
    ) -> None:
        """Start a fresh optimiser; see ``Optimiser``."""
        self.optimiser = Optimiser(
            self.model, learning_rate, warmup=warmup, decay=decay, max_grad_norm=max_grad_norm
        )

    def keep_reference(self) -> None:
        """Freeze the weights as they are: the KL leash is tied to them.

        Under an adapter nothing is copied but the adapter; where it has not learned anything yet,
        not even that.
        """
        if adapter.adapted(self.model):
            worn = adapter.adapter_weights(self.model)
            fresh = all(not bool(w.any()) for name, w in worn.items() if "lora_B" in name)
            self.reference = EarlierAdapter(self.model, None if fresh else worn)
            return
        self.reference = copy.deepcopy(self.model).eval().requires_grad_(False)

    def feed(self, samples: Sequence[Sample], loss: Loss) -> None:
        """Nothing: there is no time to be won before all samples of the step are there."""

    def update(self, samples: Sequence[Sample], loss: Loss) -> Stats:
        """One optimiser step on all samples (accumulated over micro-batches).

        Raises ``TrainingError`` on a NaN or infinite loss, before any weight has changed, and
        ``EngineError`` for a sample that is longer than the model's context.
        """
        if self.optimiser is None:
            raise TrainingError("call optimise(learning_rate) before update")
        if not samples:
            return {"samples": 0.0}
        longest = max(len(s.prompt_ids) + len(s.completion_ids) for s in samples)
        if longest > self.context:
            raise EngineError(
                f"a sample of {longest} tokens is longer than the {self.context} that {self.name} "
                "reads; leave it out, or use a model with a longer context"
            )
        self._history.clear()  # its weights are about to change, and its memory is wanted
        stats = self.optimiser.step(
            samples,
            loss,
            pad_id=self.pad_id,
            shared=self.shared_prefix,
            engine=self.engine,
            reference=self.reference,
        )
        self.version += 1
        return stats

    def snapshot(self) -> LocalPolicy:
        """A frozen copy of the policy as it is now; under an adapter, the base is not copied."""
        kept = adapter.base_weights(self.model) if adapter.adapted(self.model) else []
        model = copy.deepcopy(self.model, {id(weight): weight for weight in kept})
        model.eval().requires_grad_(False)
        past = LocalPolicy(
            model,
            self.tokenizer,
            f"{self.name}@{self.version}",
            shared_prefix=self.shared_prefix,
            engine=self.engine,
        )
        past.version, past.base = self.version, self.base
        return past

    def recall(self, folder: str | Path, name: str) -> LocalPolicy:
        """A snapshot from where it was saved."""
        return LocalPolicy.from_folder(folder, name, self.engine)

    def learn_post_completion(self) -> None:
        """Give the model the token at which a reply ends and its assessment begins, if it has none.

        Its embedding starts as the mean of all others. To be called before ``optimise`` and
        ``load``.
        """
        if self.post_id is not None:
            return
        if adapter.adapted(self.model):
            raise ConfigError(adapter.NO_TOKEN)
        self._add_token(POST_COMPLETION)
        rows = self.model.get_input_embeddings().num_embeddings  # often more than there are tokens
        if len(self.tokenizer) > rows:
            self.model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
            for part in (self.model.get_input_embeddings(), self.model.get_output_embeddings()):
                weight = part.weight.data
                weight[rows:] = weight[:rows].mean(0)
        self._history.clear()
        warnings.warn(
            f"{self.name} had no token {POST_COMPLETION}, at which inference stops; it has now",
            VocabularyWarning,
            stacklevel=2,
        )

    def follow(self, other: LocalPolicy, share: float) -> None:
        """Move every weight by that share of the way to another policy's of the same shape.

        Step after step a share of 1 - d gives the moving average of decay d.
        """
        with torch.no_grad():
            for mine, theirs in zip(self.model.parameters(), other.model.parameters(), strict=True):
                mine.lerp_(theirs.to(mine), share)
        self._history.clear()

    # -- files ------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write a loadable Hugging Face folder, with the optimiser beside the weights."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        if self.model.generation_config is not None:  # others that serve it shall stop there too
            ends = stops(self.model.generation_config, self.tokenizer) | self.stop_ids
            self.model.generation_config.eos_token_id = sorted(ends)
        self.model.save_pretrained(path, safe_serialization=True)
        self.tokenizer.save_pretrained(path)
        if self.optimiser is not None:
            self.optimiser.save(path / "optimiser.safetensors", version=self.version)
        if self.base:
            adapter.write_base(path, self.base)
        if isinstance(self.reference, EarlierAdapter):
            save_file(self.reference.weights, path / REFERENCE)
        elif self.reference is not None:
            save_model(self.reference, str(path / REFERENCE))

    def load(self, folder: str | Path) -> None:
        """Read weights back into this policy."""
        path = Path(folder)
        fresh = LocalPolicy.from_folder(path, engine=replace(self.engine, device="cpu"))
        self.model.load_state_dict(fresh.model.state_dict())
        self._history.clear()

    def load_optimiser(self, folder: str | Path) -> None:
        """Read the optimiser's state and counters, and the reference where one was kept.

        ``optimise`` must have been called as before.
        """
        if self.optimiser is None:
            raise TrainingError("call optimise(learning_rate) before load_optimiser")
        self.version = self.optimiser.load(Path(folder) / "optimiser.safetensors")["version"]
        kept = Path(folder) / REFERENCE
        if kept.exists() and adapter.adapted(self.model):
            weights = load_file(kept, device=str(self.model.device))
            self.reference = EarlierAdapter(self.model, weights)
        elif kept.exists():
            reference = copy.deepcopy(self.model).eval().requires_grad_(False)
            load_model(reference, kept)
            self.reference = reference


def quiet_libraries(threads: int | None) -> None:
    """Prepare a process of ours: no bars and notices of transformers, PyTorch's threads if given.

    Freed memory is kept for the next tensor.
    """
    keep_memory()
    warnings.formatwarning = lambda message, *_, **__: f"demur: {message}\n"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
