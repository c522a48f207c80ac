"""What an engine elsewhere cannot do, said before any work, with the way round.

An engine trains an adapter by a handful of losses over drawn tokens (``demur.policies.datums``).
"""

from __future__ import annotations

from collections.abc import Iterator

from demur.anchors.own_confidence import OwnConfidence
from demur.errors import ConfigError
from demur.policies.tinker import ALPHA
from demur.recipe import Offline, PolicyGradient, Recipe

LOCAL = "or train with --policy local"


def check_remote(recipe: Recipe) -> None:
    """Refuse a recipe that asks for more than an engine can do; raises ``ConfigError``."""
    found = list(_beyond(recipe))
    if found:
        raise ConfigError(
            f"the recipe {recipe.name} asks for what an engine cannot do: {'; '.join(found)}; "
            f"{LOCAL}"
        )


def _beyond(recipe: Recipe) -> Iterator[str]:
    if recipe.lora is not None and (recipe.lora.targets or recipe.lora.alpha not in (None, ALPHA)):
        yield (
            f"choose an adapter's layers or scale (its scale is {ALPHA} over the rank): leave out "
            "lora.targets and lora.alpha"
        )
    for number, stage in enumerate(recipe.stages):
        at = f"--set stages.{number}"
        if isinstance(stage, PolicyGradient):
            if stage.kl:
                yield f"stay near a reference policy (KL): {at}.kl=0"
            if stage.entropy_floor:
                yield f"see the entropy of the levels: {at}.entropy_floor=0"
            if stage.anchor_options.get("average"):
                yield f"average weights: {at}.anchor_options.average=0"
        if isinstance(stage, Offline) and stage.keep != "right":
            yield (
                "learn pairs against a reference policy (DPO): "
                f"{at}.keep=right, or demur export --format trl-dpo for a trainer that can"
            )
        elif getattr(stage, "anchor", "") == OwnConfidence.name:
            yield (
                "say how much more probable than others a token was (own_confidence): name "
                f"another anchor with {at}.anchor"
            )
