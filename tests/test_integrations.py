"""Integrations without what they integrate with."""

from __future__ import annotations

import importlib
import sys

import pytest

from demur.errors import ConfigError


def test_a_missing_inspect_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.delitem(sys.modules, "demur.integrations.inspect", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'demur\[inspect\]'"):
        importlib.import_module("demur.integrations.inspect")


def test_the_game_without_trl_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("trl", "trl.models"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "demur.integrations.trl_rollout", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'demur\[trl\]'"):
        importlib.import_module("demur.integrations.trl_rollout")


def test_the_rewards_for_trl_need_no_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "demur.integrations.trl", raising=False)
    made = importlib.import_module("demur.integrations.trl").reward_func("format")
    assert made(completions=["x", "<answer>1</answer><confidence>0.5</confidence>"]) == [0.0, 1.0]
