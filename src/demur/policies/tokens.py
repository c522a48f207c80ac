"""A policy's tokens: dialogues into ids, ids into the text that each of them adds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from jinja2 import TemplateError
from tokenizers import AddedToken
from transformers import GenerationConfig, PreTrainedTokenizerBase

from demur.errors import ModelFolderError
from demur.reply import POST_COMPLETION
from demur.schema import Dialogue, Sampling


class ContextWarning(UserWarning):
    """A prompt does not fit the model's context."""


class Tokens:
    """What a policy knows of its tokenizer.

    ``stop_ids`` end its turn; ``context`` is how many tokens it reads at most.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        stop_ids: frozenset[int],
        context: int | None = None,
    ) -> None:
        self.tokenizer, self.name, self.context = tokenizer, name, context or 1 << 30
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.pad_id = int(tokenizer.pad_token_id)
        self.stop_ids = stop_ids
        self._look()

    def _look(self) -> None:
        """Note what depends on the vocabulary, which may grow.

        ``post_id`` is the token at which a reply ends and its assessment begins, if it is one.
        """
        self._prompts: dict[Dialogue, tuple[int, ...]] = {}
        self._single: dict[int, str] | None = None
        ids = self.tokenizer(POST_COMPLETION, add_special_tokens=False)["input_ids"]
        single = len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id
        self.post_id = int(ids[0]) if single else None
        if self.post_id is not None:
            self.stop_ids |= {self.post_id}

    def _add_token(self, text: str) -> None:
        """Let the tokenizer read a text as one token from now on."""
        self.tokenizer.add_tokens([AddedToken(text, normalized=False)])
        self._look()

    def prompt_ids(self, dialogue: Dialogue) -> tuple[int, ...]:
        """The token ids of a dialogue, ready for the model's turn.

        Where the model itself spoke last, its turn is not over: it goes on from those words.
        """
        found = self._prompts.get(dialogue)
        if found is None:
            unended = len(dialogue) > 1 and dialogue[-1].role == "assistant"
            text = self._render(dialogue[:-1] if unended else dialogue)
            found = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            if unended:
                said = self.tokenizer(dialogue[-1].content, add_special_tokens=False)
                found += tuple(said["input_ids"])
            if len(self._prompts) > 100_000:
                self._prompts.clear()
            self._prompts[dialogue] = found
        return found

    def opening_ids(self, sampling: Sampling) -> tuple[int, ...]:
        """The tokens that every reply is made to begin with."""
        if not sampling.opening:
            return ()
        return tuple(self.tokenizer(sampling.opening, add_special_tokens=False)["input_ids"])

    def with_room(self, prompts: Sequence[tuple[int, ...]], sampling: Sampling) -> list[int]:
        """The numbers of the prompts that leave room for a reply; one warning of all others."""
        needed = len(self.opening_ids(sampling)) + sampling.max_tokens
        room = [i for i, prompt in enumerate(prompts) if len(prompt) + needed <= self.context]
        if len(room) < len(prompts):
            warnings.warn(
                f"{self.name} reads {self.context} tokens at most: a prompt that leaves no room "
                f"for a reply of {sampling.max_tokens} gets an empty one; shorten such prompts or "
                "ask for fewer tokens",
                ContextWarning,
                stacklevel=3,
            )
        return room

    def _render(self, dialogue: Dialogue) -> str:
        """The chat template's text; without a system role in it, that message opens the user's."""
        messages = [{"role": m.role, "content": m.content} for m in dialogue]
        try:
            return self._template(messages)
        except TemplateError as error:
            refused = str(error)
        if messages[0]["role"] == "system" and len(messages) > 1:
            system, first, *rest = messages
            opening = {**first, "content": f"{system['content']}\n\n{first['content']}"}
            try:
                return self._template([opening, *rest])
            except TemplateError as error:
                refused = str(error)
        raise ModelFolderError(
            f"the chat template of {self.name} cannot put a dialogue into words ({refused}); "
            "use a model whose template takes user and assistant turns"
        )

    def _template(self, messages: list[dict[str, str]]) -> str:
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )

    def encode(self, dialogue: Dialogue, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Prompt ids and the ids of a given reply, with the token that ends the model's turn.

        A reply that is followed by its assessment ends with the token between them.
        """
        ids = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if ids and ids[-1] == self.post_id:
            return self.prompt_ids(dialogue), ids
        return self.prompt_ids(dialogue), (*ids, int(self.tokenizer.eos_token_id))

    def pieces(self, ids: Sequence[int], text: str | None = None) -> list[str]:
        """The text that each token adds, so that character spans can be laid over tokens.

        ``text`` is what they are together, where that is known: it is not decoded again then.
        """
        if self._single is None:
            every = list(range(len(self.tokenizer)))
            alone = self.tokenizer.batch_decode([[i] for i in every])
            self._single = dict(zip(every, alone, strict=True))
        pieces = ["" if i in self.stop_ids else self._single.get(i, "") for i in ids]
        joined = "".join(pieces)
        if joined == text:
            return pieces
        whole = self._decode([[i for i in ids if i not in self.stop_ids]])[0]
        if joined == whole:
            return pieces
        # Tokens that only make sense together (parts of a character): decode growing prefixes.
        # A prefix counts as far as it agrees with the whole, so a character belongs to the token
        # that completes it.
        kept = [i for i in ids if i not in self.stop_ids]
        grown, before = [], 0
        for text in self._decode([kept[:end] for end in range(1, len(kept))]):
            agreed = _agreement(text, whole)
            grown.append(whole[before:agreed])
            before = max(before, agreed)
        rest = iter([*grown, whole[before:]])
        return ["" if i in self.stop_ids else next(rest) for i in ids]

    @property
    def level_ids(self) -> tuple[int, ...] | None:
        """The ids of the eleven confidence levels, if each is a token of its own; else ``None``."""
        levels = [f"{k / 10:.1f}" for k in range(11)]
        ids = self.tokenizer(levels, add_special_tokens=False)["input_ids"]
        single = {i[0] for i in ids if len(i) == 1} - {self.tokenizer.unk_token_id}
        return tuple(i[0] for i in ids) if len(single) == len(ids) else None

    def _decode(self, bodies: Sequence[Sequence[int]]) -> list[str]:
        """Text with special tokens kept: a stray role token must stay visible."""
        if not bodies:
            return []
        texts: list[str] = self.tokenizer.batch_decode(
            [list(b) for b in bodies], clean_up_tokenization_spaces=False
        )
        return texts


def stops(
    generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase
) -> frozenset[int]:
    """The tokens that end a model's turn: those it is configured with, and the tokenizer's."""
    configured = generation.eos_token_id if generation else None
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in (*several, tokenizer.eos_token_id) if i is not None)


def _agreement(a: str, b: str) -> int:
    """How many characters two texts begin with in common."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
