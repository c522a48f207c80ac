"""Optimiser state as safetensors: tensors by name, numbers in the header. No pickle anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from demur.errors import RunFolderError


def save_optimiser(path: Path, optimiser: torch.optim.Optimizer, facts: Mapping[str, Any]) -> None:
    """Write every state tensor, and ``facts`` (JSON values) in the header."""
    tensors: dict[str, Tensor] = {}
    for index, slots in optimiser.state_dict()["state"].items():
        for slot, value in slots.items():
            tensors[f"{index}.{slot}"] = torch.as_tensor(value).detach().clone().contiguous()
    save_file(tensors, path, metadata={"facts": json.dumps(dict(facts))})


def load_optimiser(path: Path, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Put the state back into a fresh optimiser over the same parameters; returns the facts.

    Raises ``RunFolderError`` where the file is missing or damaged.
    """
    state: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {}).get("facts", "{}"))
            for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
                index, slot = key.split(".", 1)
                state.setdefault(int(index), {})[slot] = file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"cannot read the optimiser state in {path}; remove that checkpoint and resume from "
            "the one before"
        ) from error
    whole = optimiser.state_dict()
    whole["state"] = state
    optimiser.load_state_dict(whole)
    return facts
