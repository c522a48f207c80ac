"""What several test files share, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpo import Rows, exported_rows
from tiny import tiny_policy

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


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Rows of ``demur export --format trl-grpo``."""
    return exported_rows(tmp_path_factory.mktemp("exported"))
