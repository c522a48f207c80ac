"""Optimiser state on disk: any torch optimiser, no pickle, and refused when damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from demur.engine.state import load_optimiser, save_optimiser
from demur.errors import RunFolderError

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
MAKERS: dict[str, Make] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, betas=(0.9, 0.95)),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.05, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "muon": lambda p: torch.optim.Muon([x for x in p if x.ndim == 2], lr=0.05),
}


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]


def step(params: list[torch.nn.Parameter], optimiser: torch.optim.Optimizer, turn: int) -> None:
    optimiser.zero_grad()
    sum(((p - turn) ** 3).sum() for p in params).backward()  # type: ignore[union-attr]
    optimiser.step()


@pytest.mark.parametrize("name", MAKERS)
def test_a_restored_optimiser_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = parameters()
    optimiser = MAKERS[name](whole)
    for turn in range(3):
        step(whole, optimiser, turn)
    facts = {"taken": 3, "note": "é"}
    save_optimiser(tmp_path / "o.safetensors", optimiser, facts)
    middle = [p.detach().clone() for p in whole]
    for turn in range(3, 6):
        step(whole, optimiser, turn)

    def go_on(restore: bool) -> list[torch.nn.Parameter]:
        params = [torch.nn.Parameter(p.clone()) for p in middle]
        fresh = MAKERS[name](params)
        if restore:
            assert load_optimiser(tmp_path / "o.safetensors", fresh) == facts
        for turn in range(3, 6):
            step(params, fresh, turn)
        return params

    assert all(torch.equal(a, b) for a, b in zip(go_on(True), whole, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(go_on(False), whole, strict=True))


def test_a_fresh_optimiser_has_no_state_and_that_is_kept(tmp_path: Path) -> None:
    params = parameters()
    save_optimiser(tmp_path / "o.safetensors", MAKERS["adamw"](params), {})
    again = MAKERS["adamw"](params)
    assert load_optimiser(tmp_path / "o.safetensors", again) == {}
    assert again.state_dict()["state"] == {}


def test_the_file_names_each_tensor_by_parameter_and_slot(tmp_path: Path) -> None:
    params = parameters()
    optimiser = MAKERS["sgd"](params)
    step(params, optimiser, 0)
    save_optimiser(tmp_path / "o.safetensors", optimiser, {})
    with safe_open(tmp_path / "o.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["0.momentum_buffer", "1.momentum_buffer"]
        kept = file.get_tensor("0.momentum_buffer")
    assert torch.equal(kept, optimiser.state[params[0]]["momentum_buffer"])


def test_damage_is_one_clear_sentence(tmp_path: Path) -> None:
    params = parameters()
    optimiser = MAKERS["adamw"](params)
    step(params, optimiser, 0)
    file = tmp_path / "o.safetensors"
    save_optimiser(file, optimiser, {})
    for content in (file.read_bytes()[:-10], b"", b"not tensors at all"):
        file.write_bytes(content)
        with pytest.raises(RunFolderError, match="cannot read the optimiser state") as caught:
            load_optimiser(file, optimiser)
        assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(RunFolderError):
        load_optimiser(file, optimiser)
