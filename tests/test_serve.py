"""The seed model behind a real server, transformers' own: the same words as in this process."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from demur.config import load_recipe
from demur.policies.endpoint import EndpointPolicy
from demur.policies.local import LocalPolicy
from demur.runlog import RunFolder, read_metrics
from demur.schema import Message, Sampling
from demur.skills.loop import SkillRun
from demur.world.seed import SEED_FOLDER

STARTS_WITHIN = 120.0  # seconds, on a busy machine

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None,
    reason="transformers serve needs the extra: pip install 'transformers[serving]'",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointPolicy]:
    """A server of the seed model on loopback, and a policy that asks it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", SEED_FOLDER.name, "--host", "127.0.0.1", "--port", str(port)]
    settings = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as said:
        server = subprocess.Popen(
            [*command, "--device", "cpu"],
            cwd=SEED_FOLDER.parent,
            env=settings,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server, log)
            yield EndpointPolicy(f"http://127.0.0.1:{port}/v1", SEED_FOLDER.name)
        finally:
            server.terminate()
            server.wait(20)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_it_says_what_it_says_in_this_process(served: EndpointPolicy) -> None:
    asked = [(Message("user", q),) for q in ("12+30?", "12+30? I say 43.", "Ask a sum.")]
    local = LocalPolicy.from_folder(SEED_FOLDER)
    greedy = Sampling(0.0, 32, 0)
    said, expected = (p.reply(asked, 1, greedy) for p in (served, local))
    assert [c.text for [c] in said] == [c.text for [c] in expected]
    assert "<answer>" in said[0][0].text and "<|" not in said[0][0].text


def test_skills_are_learned_over_the_wire(served: EndpointPolicy, tmp_path: Path) -> None:
    settings = load_recipe("ctx2skill_notes", ["skills.iterations=2", "skills.notes=16"]).skills
    assert settings is not None
    texts = []
    for place, policy in (("there", served), ("here", LocalPolicy.from_folder(SEED_FOLDER))):
        run = RunFolder(tmp_path / place, {})
        SkillRun(settings, policy, run, lambda *_, p=policy: p, 0).go()
        texts.append([c["texts"] for c in read_metrics(run.path / "calls.jsonl")])
    assert texts[0] == texts[1] and len(texts[0]) > 8
