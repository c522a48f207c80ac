"""A model behind an OpenAI-compatible server: it answers, and cannot be trained.

Each completion is a request of its own, several at a time, so that one that fails is asked again by
itself. The client retries what may pass (429, 5xx, time-outs, cut connections) and waits longer
each time; what will not pass is an ``EndpointError``. Where only some answers never come in time,
they are lost, counted and warned of, and the rest is used. The key comes from the environment and
goes nowhere but into the request's header.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

import openai
from openai.types.chat import ChatCompletion

from demur.errors import ConfigError, EndpointError
from demur.policies.responses import Answer, Responses, digest
from demur.schema import Completion, Dialogue, Sampling

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key; a server that wants none gets a stand-in."""
PAUSE, LONGEST_PAUSE = 0.25, 8.0
"""Seconds before a broken answer is asked for again: the first time, and at most."""


class LostAnswers(UserWarning):
    """A server did not give some of its answers in time."""


@dataclass
class Usage:
    """Answers and tokens so far: asked for now, and found among what was kept.

    ``uncounted`` answers came without a count of tokens.
    """

    asked: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, answer: Answer, again: bool = False) -> None:
        """Count one answer; tokens of one that was kept were paid before, and count all the same.

        So the figures of a run that was stopped are those of one that was not.
        """
        with self._lock:
            self.asked += not again
            self.kept += again
            self.uncounted += answer.prompt_tokens is None
            self.prompt_tokens += answer.prompt_tokens or 0
            self.completion_tokens += answer.completion_tokens or 0


class EndpointPolicy:
    """Answers dialogues through a server's chat completions.

    It gives no token ids and no log-probabilities, so nothing can be learned from its replies by
    token, and it cannot go on from its own words.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 6,
        responses: Responses | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"an endpoint is an address such as http://127.0.0.1:8000/v1, not {url!r}"
            )
        self.name, self.url, self.model = model, url, model
        self.concurrency, self.lost = concurrency, 0
        self.usage = Usage()
        self._responses, self._retries = responses, retries
        key = os.environ.get(KEY) or "none"
        self._client = openai.OpenAI(
            base_url=url, api_key=key, timeout=timeout, max_retries=retries
        )

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """``n`` completions a dialogue, each with a seed of its own.

        Raises ``ConfigError`` for what a server cannot do (an opening, branches, gaps, going on
        from its own words) and ``EndpointError``.
        """
        if sampling.opening or sampling.branch or sampling.gaps:
            raise ConfigError(
                "an endpoint gives no say over single tokens, so it cannot open, branch or look at "
                "replies; use a local model folder for that"
            )
        if any(d[-1].role == "assistant" for d in dialogues):
            raise ConfigError(
                "an endpoint cannot go on from its own words (post-completion learning); use a "
                "local model folder for that"
            )
        jobs = [(d, (sampling.seed + i * n + j) % 2**31) for i, d in enumerate(dialogues)
                for j in range(n)]  # fmt: skip
        with ThreadPoolExecutor(max(1, min(self.concurrency, len(jobs)))) as pool:
            said = list(pool.map(lambda job: self._ask(job[0], job[1], sampling), jobs))
        lost = sum(c.stop == "lost" for c in said)
        if lost and lost == len(said):
            raise EndpointError(
                f"the server at {self.url} did not answer in time; ask for fewer tokens, or for "
                "fewer at a time"
            )
        if lost:
            self.lost += lost
            warnings.warn(
                f"the server at {self.url} did not give {lost} of {len(said)} answers in time; "
                "they count as unread",
                LostAnswers,
                stacklevel=2,
            )
        return [said[i * n : (i + 1) * n] for i in range(len(dialogues))]

    def _ask(self, dialogue: Dialogue, seed: int, sampling: Sampling) -> Completion:
        request = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in dialogue],
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "seed": seed,
        }
        name = digest(request)
        answer = None if self._responses is None else self._responses.get(name)
        if answer is not None:
            self.usage.add(answer, again=True)
            return Completion(answer.text, stop=answer.stop)
        try:
            found = self._create(request)
        except openai.APITimeoutError:
            return Completion("", stop="lost")
        choice, usage = found.choices[0], found.usage
        answer = Answer(
            choice.message.content or "",
            "length" if choice.finish_reason == "length" else "stop",
            None if usage is None else usage.prompt_tokens,
            None if usage is None else usage.completion_tokens,
        )
        self.usage.add(answer)
        if self._responses is not None:
            self._responses.keep(name, answer)
        return Completion(answer.text, stop=answer.stop)

    def _create(self, request: dict[str, Any]) -> ChatCompletion:
        """One answer; a body that is no chat completion is asked for again, as the client won't."""
        for tried in range(self._retries + 1):
            try:
                found = self._client.chat.completions.create(**request)
            except openai.APITimeoutError:
                raise
            except openai.APIResponseValidationError:
                found = None
            except openai.OpenAIError as error:
                self._explain(error)
            except ValueError:  # a body that is no JSON
                found = None
            if isinstance(found, ChatCompletion) and found.choices:  # the client checks neither
                return found
            if tried < self._retries:
                time.sleep(min(PAUSE * 2**tried, LONGEST_PAUSE))
        self._explain(None)

    def _explain(self, error: Exception | None) -> NoReturn:
        """One sentence with the fix; the server's own words may hold a part of the key."""
        where = f"the server at {self.url}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            said = f"{where} refused the key; set {KEY} to one that it knows"
        elif isinstance(error, openai.NotFoundError):
            said = f"{where} has no model {self.model!r} or no chat completions; check both"
        elif isinstance(error, openai.APIConnectionError):
            said = f"{where} cannot be reached; is it running, and is the address right?"
        elif isinstance(error, openai.RateLimitError):
            said = f"{where} still says that it is asked too often; lower the concurrency"
        elif isinstance(error, openai.APIStatusError):
            said = f"{where} answered with status {error.status_code}; look at its own log"
        else:
            said = f"{where} answered with something that is no chat completion; is it that kind?"
        raise EndpointError(said) from None
