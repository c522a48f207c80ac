"""What several test files share: models and rows made once a session, and the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from calling import Ran, Run
from grpo import Rows, exported_rows
from tiny import tiny_policy

from demur import cli
from demur.world.pretrain import PretrainConfig, pretrain


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing: hardly any of its replies can be read."""
    folder = tmp_path_factory.mktemp("models") / "random"
    tiny_policy().save(folder)
    return folder


@pytest.fixture(scope="session")
def speaker_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has learned the reply format, and next to nothing else."""
    folder = tmp_path_factory.mktemp("models") / "speaker"
    config = PretrainConfig(
        steps=150,
        dispute_steps=1,
        doubt_steps=1,
        batch=24,
        chunk=4,
        hidden=32,
        layers=2,
        heads=2,
        kv_heads=1,
        inner=64,
        warmup=10,
    )
    model, tokenizer, _ = pretrain(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command line as the console script does."""

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["demur", *map(str, arguments)])
        capfd.readouterr()
        threads = torch.get_num_threads()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            torch.set_num_threads(threads)
        return Ran(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Rows of ``demur export --format trl-grpo``."""
    return exported_rows(tmp_path_factory.mktemp("exported"))
