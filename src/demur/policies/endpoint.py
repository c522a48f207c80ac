"""A model behind an OpenAI-compatible server: it answers, and cannot be trained.

Each completion is a request of its own, several at a time, so that one that fails is asked again by
itself. The client retries what may pass (429, 5xx, time-outs, cut connections) and waits longer
each time; what will not pass is an ``EndpointError``. Where only some answers never come in time,
they are lost, counted and warned of, and the rest is used. The key comes from the environment and
goes nowhere but into the request's header.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import openai
from openai.types.chat import ChatCompletion

from demur.errors import ConfigError, EndpointError
from demur.schema import Completion, Dialogue, Sampling

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key; a server that wants none gets a stand-in."""


class LostAnswers(UserWarning):
    """A server did not give some of its answers in time."""


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
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"an endpoint is an address such as http://127.0.0.1:8000/v1, not {url!r}"
            )
        self.name, self.url, self.model = model, url, model
        self.concurrency, self.lost = concurrency, 0
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
        messages = [{"role": m.role, "content": m.content} for m in dialogue]
        try:
            found = self._client.chat.completions.create(
                model=self.model,
                messages=messages,  # type: ignore[arg-type]
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
                seed=seed,
            )
        except openai.APITimeoutError:
            return Completion("", stop="lost")
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON
            self._explain(error)
        if not isinstance(found, ChatCompletion) or not found.choices:  # the client checks neither
            self._explain(None)
        choice = found.choices[0]
        cut = choice.finish_reason == "length"
        return Completion(choice.message.content or "", stop="length" if cut else "stop")

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
