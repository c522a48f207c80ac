"""A real engine for tests: SkyRL's server on this machine's CPU, started and stopped here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / "engines" / ".venv" / "bin" / "python"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class SkyRL:
    """The server of ``engines/skyrl.py``; what it has said is in ``log``."""

    def __init__(self, state: Path, *flags: str, port: int | None = None) -> None:
        if not PYTHON.exists():
            pytest.skip("there is no engine: run make engine")
        self.port, self.log = port or free_port(), state.with_suffix(".log")
        self.url = f"http://127.0.0.1:{self.port}"
        command = [str(PYTHON), str(ROOT / "engines" / "skyrl.py"), "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--state", str(state), *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await()

    def _await(self) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/api/v1/healthz", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.5)
        self.stop()
        raise AssertionError(f"the engine did not start: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Kill it with all of its processes, as a machine that is switched off would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
