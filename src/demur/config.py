"""Reading recipes: TOML, with overrides, and one sentence for a mistake.

    name = "rlcr"
    description = "Brier score beside correctness, as published."
    source = "arXiv 2507.16806"
    [tasks]
    families = ["sum", "fact"]
    [[stages]]
    kind = "policy_gradient"
    steps = 160
    anchor = "truth"
    rewards = { correctness = 0.5, brier = 0.5, format = 0.5 }

``recipe`` says which keys there are. A mistake is one sentence that names the key as ``--set``
would write it.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from demur.errors import ConfigError, DemurError, UnknownName
from demur.recipe import (
    ROLES,
    STAGES,
    FileTasks,
    Player,
    PolicyGradient,
    Recipe,
    Seat,
    Skills,
    Tasks,
)
from demur.tables import EngineTable, Lora, Remote

Toml = dict[str, Any]
"""A TOML table as tomllib reads it."""

LEARNER = "learner"
"""In an override, the last policy-gradient stage (or the last stage, if there is none)."""
ANCHOR = "anchor"
"""In an override, the options of that stage's anchor."""


def recipe_names() -> list[str]:
    """The recipes that come with demur."""
    files = (entry.name for entry in _recipe_folder().iterdir())
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by name, or from a path that ends in ``.toml``, with ``--set`` overrides."""
    data, where = read_recipe(name_or_path)
    return check_recipe(apply_overrides(data, overrides), where)


def read_recipe(name_or_path: str | Path) -> tuple[Toml, str]:
    """Read a recipe's table, unchecked, and say where it came from."""
    given = str(name_or_path)
    source: Traversable
    if given.endswith(".toml"):
        source, where = Path(given), given
    else:
        if given not in recipe_names():
            raise UnknownName("recipe", given, recipe_names())
        source, where = _recipe_folder() / f"{given}.toml", f"recipe {given}"
    try:
        return tomllib.loads(source.read_bytes().decode()), where
    except FileNotFoundError:
        raise ConfigError(f"there is no recipe file {given}; check the path") from None
    except OSError as error:
        raise ConfigError(f"the recipe file {given} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{where} is not UTF-8; save it in that encoding") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{where} is not valid TOML: {_first_line(error)}") from None


def check_recipe(data: Mapping[str, object], where: str = "recipe") -> Recipe:
    """Check a recipe's table; raises ``ConfigError`` or ``UnknownName`` with the dotted key."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise _sentence(error.errors()[0], data, where) from None


def to_toml(recipe: Recipe) -> str:
    """Write a recipe with every default filled in; reading it back gives an equal recipe."""
    return tomli_w.dumps(recipe.model_dump(exclude_none=True))


def apply_overrides(data: Mapping[str, object], overrides: Sequence[str]) -> Toml:
    """Give a copy of a recipe's table with ``key=value`` overrides applied.

    Keys are dotted ("tasks.disclosed", "stages.0.steps"); "learner.steps" means the last
    policy-gradient stage, or the last stage if there is none, and "anchor.reliability" an option of
    that stage's anchor. Values are written as in TOML; a bare word or path is text. Only the keys
    are checked here; ``check_recipe`` checks the values.
    """
    result: Toml = copy.deepcopy(dict(data))
    for override in overrides:
        key, value = override_value(override)
        _assign(result, _resolve(result, key), value)
    return result


def override_value(override: str) -> tuple[str, object]:
    """Read one ``key=value``: the key as typed, the value as TOML or a bare word."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"cannot read --set {override!r}: write it as key=value")
    return key, _value(key, text.strip())


def _recipe_folder() -> Traversable:
    return resources.files("demur") / "recipes"


def _first_line(error: Exception) -> str:
    """The parser's message, which ends in "(at line 3, column 5)"."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _resolve(data: Toml, key: str) -> list[str | int]:
    """Turn a dotted key into a path, checking every part of it against the models."""
    typed = key.split(".")
    parts = typed
    if key in (LEARNER, ANCHOR):
        example = "steps=3" if key == LEARNER else "reliability=0.8"
        raise ConfigError(
            f"cannot set {key!r} as a whole: name one of its keys, as {key}.{example}"
        )
    if typed[0] in (LEARNER, ANCHOR):
        stages = _stages(data)
        kinds = [stage.get("kind") for stage in stages]
        last = max((i for i, kind in enumerate(kinds) if kind == "policy_gradient"), default=-1)
        below = typed[1:] if typed[0] == LEARNER else ["anchor_options", *typed[1:]]
        parts = ["stages", str(last if last >= 0 else len(stages) - 1), *below]
    path: list[str | int] = []
    for number, part in enumerate(parts):
        known = _known_keys(data, path)
        if known is None:
            path.append(part)  # a table of free names: rewards, anchor options
        elif part not in known:
            names = known if path else [*known, LEARNER, ANCHOR]
            before = typed[: number + len(typed) - len(parts)]
            raise UnknownName("key", key, _dotted_all(before, names))
        else:
            path.append(int(part) if path == ["stages"] else part)
    return path


def _stages(data: Toml) -> list[Toml]:
    stages = data.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(s, dict) for s in stages):
        raise ConfigError("the recipe has no stages: add a [[stages]] table with a kind")
    return stages


def _known_keys(data: Mapping[str, object], path: Sequence[str | int]) -> list[str] | None:
    """The keys that may stand at a path; ``None`` where any may, and [] where none may."""
    match list(path):
        case []:
            return list(Recipe.model_fields)
        case ["tasks"]:
            return list(Tasks.model_fields)
        case ["engine"]:
            return list(EngineTable.model_fields)
        case ["tasks", "file"]:
            return list(FileTasks.model_fields)
        case ["lora"]:
            return list(Lora.model_fields)
        case ["remote"]:
            return list(Remote.model_fields)
        case ["skills"]:
            return list(Skills.model_fields)
        case ["skills", "roles"]:
            return list(ROLES)
        case ["skills", "roles", _]:
            return list(Player.model_fields)
        case ["stages"]:
            return [str(number) for number in range(len(_stages(dict(data))))]
        case ["stages", int(number)]:
            kind = _stages(dict(data))[number].get("kind")
            models = [STAGES[kind]] if kind in STAGES else list(STAGES.values())
            return sorted({field for model in models for field in model.model_fields})
        case ["stages", int(), "rewards" | "anchor_options" | "game_options" | "reward_options"]:
            return None
        case ["stages", int(), "seats", *below]:
            return _seat_keys(below)
        case ["stages", int(), "reward_options", _]:
            return None
        case _:
            return []


def _seat_keys(below: Sequence[str | int]) -> list[str] | None:
    """The keys below ``seats``: any seat, its own, and then names of rewards and their options."""
    match list(below):
        case [_]:
            return list(Seat.model_fields)
        case [_, "rewards" | "reward_options"] | [_, "reward_options", _] | []:
            return None
        case _:
            return []


def _assign(data: Toml, path: Sequence[str | int], value: object) -> None:
    at: Any = data
    for part in path[:-1]:
        if isinstance(at, dict) and not isinstance(at.get(str(part)), dict | list):
            # A table that the recipe leaves out starts from its default: "learner.rewards.brier"
            # adds to correctness rather than replacing it.
            at[str(part)] = dict(PolicyGradient().rewards) if part == "rewards" else {}
        at = at[part]
    at[path[-1]] = value


def _value(key: str, text: str) -> object:
    """Read a value as TOML, or as text if it is a bare word, path or address."""
    try:
        table = tomllib.loads(f"value = {text}")
        if set(table) == {"value"}:
            return table["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        if re.fullmatch(r"[A-Za-z_./~][\w./~ -]*|https?://\S+", text):
            return text
    raise ConfigError(f"cannot read the value of --set {key}={text}: write it as in TOML")


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in path)


def _dotted_all(path: Sequence[str | int], keys: Sequence[str]) -> list[str]:
    return [_dotted([*path, key]) for key in keys] or ["nothing below it"]


def _sentence(error: ErrorDetails, data: Mapping[str, object], where: str) -> ConfigError:
    """One pydantic error as one of ours."""
    path = [part for part in error["loc"] if part != "[key]"]
    if len(path) > 2 and path[0] == "stages" and path[2] in STAGES:
        del path[2]  # pydantic puts the tag of the union there
    key = _dotted(path)
    kind, context = error["type"], error.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, DemurError):
        located: ConfigError = cause if isinstance(cause, UnknownName) else ConfigError()
        located.args = (": ".join(filter(None, [where, key, str(cause)])),)
        return located
    if kind == "extra_forbidden":
        known = _dotted_all(path[:-1], _known_keys(data, path[:-1]) or [])
        unknown = UnknownName("key", key, known)
        unknown.args = (f"{where}: {unknown}",)
        return unknown
    if kind == "missing":
        return ConfigError(f"{where}: {key} is missing; add it")
    if kind == "union_tag_not_found":
        return ConfigError(f"{where}: {key}.kind is missing; add one of: {', '.join(STAGES)}")
    if kind == "union_tag_invalid":
        unknown = UnknownName("stage kind", str(context.get("tag")), STAGES)
        unknown.args = (f"{where}: {key}: {unknown}",)
        return unknown
    said = error["msg"][0].lower() + error["msg"][1:]
    return ConfigError(f"{where}: {key}: {said}, not {error['input']!r}")
