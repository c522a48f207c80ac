"""An engine for tests that computes nothing: it speaks the Tinker protocol, and keeps a record.

Every prompt gets replies that the seed model once said, every update is acknowledged, every adapter
is one that changes nothing. So what is tested is what is sent, in which order, and what becomes of
the answers; that an engine learns from it is for test_tinker_engine.py.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from demur.engine import adapter
from demur.policies.local import LocalPolicy
from demur.schema import Message, Sampling
from demur.world.seed import SEED_FOLDER

MODEL = str(SEED_FOLDER)
Asked = tuple[str, dict[str, Any]]
RANK = 4


class Engine(ThreadingHTTPServer):
    """What was asked is in ``asked``; ``down`` may hide it behind a proxy that says 502."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, replies: list[list[int]], archive: bytes, title: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.archive, self.title = archive, title
        self.asked: list[Asked] = []
        self.saved: list[str] = []
        self.down = False
        self.breaks: Callable[[str], int] = lambda what: 0
        self._spoken = itertools.cycle(replies)
        self._ready: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def kinds(self, *names: str) -> list[str]:
        """The kinds of what was asked, in order; of these only, where some are named."""
        return [what for what, _ in self.asked if not names or what in names]

    def bodies(self, name: str) -> list[dict[str, Any]]:
        return [body for what, body in self.asked if what == name]

    def get(self, path: str) -> dict[str, Any] | bytes | None:
        if path == "/":
            return {"name": self.title}
        if path == "/api/v1/healthz":
            return {"status": "ok"}
        if path == "/api/v1/get_server_capabilities":
            return {"supported_models": [{"model_name": MODEL}, {"model_name": None}]}
        return self.archive if path == "/archive" else None

    def post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if what == "retrieve_future":
                return self._ready.pop(str(body["request_id"]))
            if what in ("client/config", "telemetry", "session_heartbeat"):
                return {}
            self.asked.append((what, body))
            if what == "create_session":
                return {"session_id": "s"}
            number = str(next(self._numbers))
            self._ready[number] = self._answer(what, body)
            return {"request_id": number, "future_id": number, "model_id": f"m{number}"}

    def _answer(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what == "asample":
            rows = [next(self._spoken) for _ in range(body.get("num_samples", 1))]
            most = body["sampling_params"]["max_tokens"]
            said = [
                {"stop_reason": "stop", "tokens": row[:most], "logprobs": [-0.5] * len(row[:most])}
                for row in rows
            ]
            return {"type": "sample", "sequences": said}
        if what == "forward_backward":
            data = body["forward_backward_input"]["data"]
            lengths = [len(each["loss_fn_inputs"]["target_tokens"]["data"]) for each in data]
            told = [
                {"logprobs": {"data": [-0.5] * n, "dtype": "float32", "shape": [n]}}
                for n in lengths
            ]
            return {"loss_fn_output_type": "x", "loss_fn_outputs": told, "metrics": {}}
        if what == "create_model":
            number = str(next(self._numbers) - 1)
            lora = {"rank": RANK, "alpha": 32.0, "seed": 0}
            return {"model_id": f"m{number}", "base_model": MODEL, "lora_config": lora}
        if what == "save_weights":
            self.saved.append(f"tinker://m/weights/{body['path']}")
            return {"type": "save_weights", "path": self.saved[-1]}
        if what == "save_weights_for_sampler":
            path = body.get("path")
            named = {"path": f"tinker://m/{path}"} if path else {"sampling_session_id": "x"}
            return {"type": "save_weights_for_sampler", **named}
        return {"metrics": {}} if what == "optim_step" else {"type": what}


class _Handler(BaseHTTPRequestHandler):
    """Ends each connection (HTTP/1.0), as the client library leaves those that are open."""

    server: Engine

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/archive") and self.path != "/archive":
            return self.send(302, b"", location=f"{self.server.url}/archive")
        found = self.server.get(self.path)
        if found is None or self.server.down:
            return self.send(502 if self.server.down else 404, b"{}")
        code = self.server.breaks(self.path.strip("/"))
        if code:
            return self.send(code, b"{}")
        return self.send(200, found if isinstance(found, bytes) else json.dumps(found).encode())

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        what = self.path.removeprefix("/api/v1/")
        code = 502 if self.server.down else self.server.breaks(what)
        if code:
            return self.send(code, b'{"error": "not now"}')
        return self.send(200, json.dumps(self.server.post(what, json.loads(raw))).encode())

    def send(self, status: int, body: bytes, location: str = "") -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if location:
            self.send_header("location", location)
        self.end_headers()
        self.wfile.write(body)


def spoken() -> list[list[int]]:
    """Replies of the seed model to some sums, right ones and wrong ones."""
    policy = LocalPolicy.from_folder(SEED_FOLDER)
    asked = [(Message("user", f"{n}+{n + 1}?"),) for n in range(3, 19)]
    return [list(c.token_ids) for row in policy.reply(asked, 2, Sampling(1.0, 32, 0)) for c in row]


def archived(folder: Path) -> bytes:
    """An adapter of the seed model that changes nothing, as an engine packs one."""
    policy = LocalPolicy.from_folder(SEED_FOLDER)
    policy.adapt(RANK, 32.0)
    policy.save(folder)
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        for name in (adapter.CONFIG, adapter.WEIGHTS):
            tar.add(folder / name, name)
    return held.getvalue()


@contextmanager
def serving(replies: list[list[int]], archive: bytes, title: str = "scripted") -> Iterator[Engine]:
    """An engine in a thread of this process."""
    engine = Engine(replies, archive, title)
    thread = threading.Thread(target=engine.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        engine.shutdown()
        engine.server_close()
        thread.join()
