"""LoRA (Hu and others, arXiv 2106.09685) through peft: low-rank adapters on a frozen model.

transformers puts peft's layers inside the model's own modules, so sampling, the tree and packing
see the same model as ever. With the adapter switched off it is the base, which serves as the
reference without a second copy. A folder of an adapter is in peft's layout; ``base.json`` beside it
says by a digest which weights it was made for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from demur.errors import ConfigError, ModelFolderError
from demur.reply import POST_COMPLETION

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
_BLOCK = 1 << 24
NO_TOKEN = (
    f"an adapter cannot hold the new token {POST_COMPLETION}: train post-completion without lora, "
    "or start from a model that has the token"
)


def attach(
    model: PreTrainedModel, rank: int, alpha: float, targets: Sequence[str] = (), seed: int = 0
) -> None:
    """Put a fresh adapter on a model and freeze all the rest; it changes nothing yet.

    ``targets`` are names of linear modules; without any, every linear layer but the output's. One
    of an adapter's two matrices is 0, the other is drawn by ``seed``. Raises ``ConfigError`` where
    peft is missing or a target is.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError(
            "LoRA needs peft, which is not installed: run `pip install demur[lora]`"
        ) from None
    modules = [(name.rpartition(".")[2], module) for name, module in model.named_modules()]
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # declared a whole number, used as any
        target_modules=list(targets) or "all-linear",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        # What GPT-2 is made of: linear layers whose weights lie the other way round.
        fan_in_fan_out=any(isinstance(module, Conv1D) for _, module in modules),
    )
    linear = {name for name, m in modules if isinstance(m, torch.nn.Linear | Conv1D)}
    unknown = [target for target in targets if target not in linear]
    if unknown:
        raise ConfigError(
            f"lora.targets {', '.join(unknown)} are no linear layers of this model; it has "
            f"{', '.join(sorted(linear))}"
        )
    with torch.random.fork_rng():  # peft draws from torch's own generator
        torch.manual_seed(seed)
        model.add_adapter(settings)
    free_adapter(model)


def free_adapter(model: PreTrainedModel) -> None:
    """Let the adapter learn, and nothing else."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def adapted(model: PreTrainedModel) -> bool:
    """Whether a model wears an adapter."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def adapter_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The adapter's parameters by name."""
    return {name: p for name, p in model.named_parameters() if "lora_" in name}


def base_weights(model: PreTrainedModel) -> list[Tensor]:
    """The parameters that no adapter is made of."""
    return [p for name, p in model.named_parameters() if "lora_" not in name]


class EarlierAdapter:
    """A model as it was when this was made: with the adapter of then, or with none at all."""

    def __init__(self, model: PreTrainedModel, weights: dict[str, Tensor] | None) -> None:
        self.model = model
        kept = weights or {}
        self.weights = {name: tensor.detach().clone() for name, tensor in kept.items()}

    @contextmanager
    def worn(self) -> Iterator[PreTrainedModel]:
        """The model with that adapter, for as long as the context lasts."""
        if not self.weights:
            self.model.disable_adapters()
            try:
                yield self.model
            finally:
                self.model.enable_adapters()
                free_adapter(self.model)
            return
        self._swap()
        try:
            yield self.model
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in adapter_weights(self.model).items():
            parameter.data, self.weights[name] = self.weights[name], parameter.data


def weights_digest(folder: Path) -> str:
    """A digest of the safetensors files of a model folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as weights:
            while block := weights.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def write_base(folder: Path, digest: str) -> None:
    """Note beside an adapter which weights it was made for."""
    (folder / BASE).write_text(json.dumps({"weights_sha256": digest}) + "\n")


def adopt(folder: Path, rank: int, alpha: float, base: str) -> None:
    """Give an adapter's weights that were trained elsewhere their settings in peft's layout.

    The layers are those that have weights; ``base`` is a folder, or a name of what is not here.
    """
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        layers = {key.partition(".lora_")[0].rpartition(".")[2] for key in file.keys()}  # noqa: SIM118
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(layers),
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=1) + "\n")
    if Path(base).is_dir():
        write_base(folder, weights_digest(Path(base)))


def check_adapter(folder: Path) -> tuple[Path, str]:
    """The base of an adapter and its digest, once both fit; raises ``ModelFolderError``.

    An adapter that does not say what it was made for is taken at its word.
    """
    settings = _read(folder / CONFIG)
    if settings.get("peft_type") != "LORA":
        raise ModelFolderError(
            f"the adapter in {folder} is {settings.get('peft_type')!r}; only LORA can be used here"
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelFolderError(
            f"the adapter in {folder} has no {WEIGHTS}; copy the folder again whole"
        )
    named = str(settings.get("base_model_name_or_path") or "")
    base = Path(named)
    if not named or not base.is_dir():
        raise ModelFolderError(
            f"the adapter in {folder} was made for the model in {named or 'an unnamed folder'}, "
            f"which is not here; set base_model_name_or_path in its {CONFIG} to where it lies"
        )
    digest = weights_digest(base)
    if (folder / BASE).is_file():
        made_for = _read(folder / BASE).get("weights_sha256")
        if made_for != digest:
            raise ModelFolderError(
                f"the adapter in {folder} was made for other weights than those in {base}; set "
                f"base_model_name_or_path in its {CONFIG} to the model that it was trained on"
            )
    return base, digest


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ModelFolderError(f"{file} cannot be read as JSON; copy the folder again whole")
    return found
