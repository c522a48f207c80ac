"""The way to an engine that speaks the Tinker protocol: found, asked, waited for, explained.

The client library sends, retries what may pass and keeps the order of requests. What it does not do
is done here: an engine that is not there is found out before any work, one that goes away in the
middle is given up after a while and not waited for without end, and every failure becomes one
sentence that says what to do. The key comes from the environment and goes nowhere but into the
client's header; the client's telemetry is off unless ``TINKER_TELEMETRY`` says otherwise.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import httpx

from demur.errors import ConfigError, DemurError, EndpointError, EngineError

KEY, NO_KEY = "TINKER_API_KEY", "tml-none"
CLIENTS = "0.24"
"""The client's versions that the engines known here answer; later ones fail when they sample."""
TOGETHER = "tinker 0.24.x and SkyRL 0.3.0"
_DETAIL = re.compile(r"""'detail': (['"])(.*?)\1\}""")
POLL = 5.0
"""Seconds between two looks at whether the engine is still there."""


def client_library() -> Any:
    """The module ``tinker``, once its version is one that works; raises ``ConfigError``."""
    install = 'run `pip install "demur[tinker]"`'
    try:
        version = metadata.version("tinker")
    except metadata.PackageNotFoundError:
        raise ConfigError(
            f"an engine is reached through the client tinker, which is not installed: {install}"
        ) from None
    if not version.startswith(f"{CLIENTS}."):
        raise ConfigError(
            f"the client tinker {version} does not speak the protocol of the engines known here "
            f"(known to work together: {TOGETHER}): {install}"
        )
    os.environ.setdefault("TINKER_TELEMETRY", "0")
    import tinker

    for name in ("tinker", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return tinker


class Connection:
    """An engine at an address.

    Raises ``ConfigError`` for an address or client that cannot work, and ``EndpointError`` where
    nobody answers or the key is refused. ``patience`` is for how many seconds the engine may be
    out of reach before it counts as gone.
    """

    def __init__(self, url: str, patience: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"an engine's address is as http://127.0.0.1:8000, not {url!r}")
        self.url, self.patience = url.rstrip("/"), patience
        self.tinker = client_library()
        self._check()
        try:
            self.service = self.tinker.ServiceClient(
                base_url=self.url, api_key=os.environ.get(KEY) or NO_KEY
            )
            found = self.service.get_server_capabilities()
        except self.tinker.NotFoundError:
            self._strangers("it lacks what a client asks for first")
        except Exception as error:
            self.explain(error)
        named = [each.model_name for each in found.supported_models]
        self.models: list[str] = [name for name in named if name]
        self.skyrl = self._is_skyrl()

    def _check(self) -> None:
        try:
            answer = httpx.get(f"{self.url}/api/v1/healthz", timeout=POLL)
        except httpx.HTTPError:
            raise EndpointError(
                f"no engine can be reached at {self.url}; is it running, and is the address right?"
            ) from None
        if answer.status_code == 404 or "json" not in answer.headers.get("content-type", ""):
            raise EndpointError(
                f"what answers at {self.url} does not speak the Tinker protocol; an "
                "OpenAI-compatible server can be measured (demur evaluate --endpoint), not trained"
            )

    def named(self, model: str) -> str:
        """The engine's own name for a model or folder; raises ``EndpointError``."""
        if model in self.models:
            return model
        path = Path(model)
        if path.is_dir():
            for name in self.models:
                if Path(name).is_dir() and Path(name).resolve() == path.resolve():
                    return name
        raise EndpointError(
            f"the engine at {self.url} has no model {model!r}; it serves "
            f"{', '.join(self.models) or 'none'}"
        )

    def _is_skyrl(self) -> bool:
        """Whether it is SkyRL's server, whatever its backend; it is known by its title."""
        try:
            told = httpx.get(f"{self.url}/", timeout=POLL).json()
        except (httpx.HTTPError, ValueError):
            return False
        return isinstance(told, dict) and told.get("name") == "Tinker API Mock"

    def release(self, adapter: str) -> None:
        """Give an adapter's place back, where places are few: SkyRL has so many and no more.

        It is no matter where that fails: the engine does it itself once the session has been silent
        for some minutes.
        """
        if self.skyrl:
            with suppress(httpx.HTTPError):
                httpx.post(
                    f"{self.url}/api/v1/unload_model",
                    json={"model_id": adapter},
                    headers={"X-API-Key": os.environ.get(KEY) or NO_KEY},
                    timeout=POLL,
                )

    def wait(self, future: Any) -> Any:
        """The result of a request, however long it takes while the engine is there."""
        unseen: float | None = None
        while True:
            began = time.monotonic()
            try:
                return future.result(timeout=POLL)
            except TimeoutError as error:
                if time.monotonic() - began < 0.9 * POLL:  # the client's own, not the look
                    self.explain(error)
            except Exception as error:
                self.explain(error)
            if self._answers():
                unseen = None
                continue
            unseen = began if unseen is None else unseen
            if time.monotonic() - unseen > self.patience:
                self._gone()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v1/healthz", timeout=POLL).status_code < 500
        except httpx.HTTPError:  # as good as the error of a proxy before it
            return False

    def _gone(self) -> NoReturn:
        raise EndpointError(
            f"the engine at {self.url} has gone away; start it again and go on with --resume from "
            "the last checkpoint"
        ) from None

    def _strangers(self, said: str) -> NoReturn:
        raise EndpointError(
            f"the engine at {self.url} and the client tinker {self.tinker.__version__} do not "
            f"understand each other ({said}); known to work together: {TOGETHER}"
        ) from None

    def explain(self, error: Exception) -> NoReturn:
        """One sentence with the fix in it."""
        client = self.tinker
        if isinstance(error, DemurError):
            raise error
        if isinstance(error, client.AuthenticationError | client.PermissionDeniedError):
            raise EndpointError(
                f"the engine at {self.url} refused the key; set {KEY} to one that it knows"
            ) from None
        if isinstance(error, client.APIConnectionError | TimeoutError | httpx.TransportError):
            self._gone()
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        detail = _DETAIL.search(said)
        said = detail[2] if detail else said
        if "not loaded" in said:
            raise EndpointError(
                f"the engine at {self.url} was started again and has lost this run's adapter; go "
                "on with --resume from the last checkpoint"
            ) from None
        if "Maximum number of LoRA adapters" in said:
            raise EngineError(
                f"the engine at {self.url} has no room for another adapter, and every snapshot of "
                "the policy takes one; start it with more (max_lora_adapters), or wait some "
                "minutes until it has given up those of runs that were killed"
            ) from None
        if isinstance(error, client.NotFoundError) or "not found" in said.lower():
            raise EndpointError(
                f"the engine at {self.url} does not have what was asked for ({said}); go on "
                "against the engine that trained this run"
            ) from None
        strange = client.APIResponseValidationError | client.UnprocessableEntityError
        if isinstance(error, strange) or "validation error" in said:
            self._strangers(said[:200])
        raise EngineError(
            f"the engine at {self.url} could not do it: {said[:300]}; look at its own log"
        ) from None


def apart(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    """Call in a thread of its own that does not keep the process from ending."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
