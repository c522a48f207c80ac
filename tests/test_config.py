"""Recipes: what loads, what is refused, and in which words."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur import config
from demur.config import (
    apply_overrides,
    check_recipe,
    load_recipe,
    recipe_names,
    to_toml,
)
from demur.engine.options import Engine
from demur.errors import ConfigError, UnknownName
from demur.recipe import Distil, PolicyGradient, Recipe

TOML = """
name = "mine"
description = "Two stages."
source = "arXiv 0000.00000"

[tasks]
families = ["sum", "fact"]
claim_reliabilities = [0.3, 0.7]
disclosed = 0.5

[[stages]]
kind = "distil"
batch = 64
labels = 30

[[stages]]
kind = "policy_gradient"
steps = 7
anchor = "approval"
anchor_options = { agree = 0.9 }
rewards = { correctness = 1, brier = 0.5 }
learning_rate = 1e-6

[[stages]]
kind = "distil"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(TOML)
    return file


def gradient(recipe: Recipe, number: int = 1) -> PolicyGradient:
    stage = recipe.stages[number]
    assert isinstance(stage, PolicyGradient)
    return stage


def table(**stage: object) -> dict[str, object]:
    return {"name": "t", "stages": [{"kind": "policy_gradient", **stage}]}


def test_the_engine_table_reaches_the_engine() -> None:
    """Its keys are the engine's options, all but the device, which is no part of a recipe."""
    recipe = load_recipe("demur", ["engine.update_tokens=500", "engine.precision=bfloat16"])
    assert recipe.engine.on("cpu") == Engine("cpu", "bfloat16", update_tokens=500)
    assert load_recipe("demur").engine.on("auto") == Engine()
    assert {f.name for f in fields(Engine)} - {"device"} == set(type(recipe.engine).model_fields)
    with pytest.raises(UnknownName, match=r"engine\.update_tokens"):
        load_recipe("demur", ["engine.update_token=500"])
    with pytest.raises(ConfigError, match=r"engine\.sample_tokens"):
        load_recipe("demur", ["engine.sample_tokens=0"])


def test_load_and_defaults(path: Path) -> None:
    recipe = load_recipe(path)
    first = recipe.stages[0]
    assert isinstance(first, Distil) and (first.batch, first.steps) == (64, 260)
    assert gradient(recipe).rewards == {"correctness": 1.0, "brier": 0.5}
    assert gradient(recipe).anchor_options == {"agree": 0.9}
    assert gradient(recipe).group == 16
    assert recipe.tasks.wrong_claims == "mixed" and recipe.tasks.file is None


def test_round_trip(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, ["tasks.file.path=data/gsm8k.jsonl", "tasks.file.limit=5"])
    again = tmp_path / "again.toml"
    again.write_text(to_toml(recipe))
    assert load_recipe(again) == recipe
    assert recipe.tasks.file is not None and recipe.tasks.file.path == "data/gsm8k.jsonl"


@given(
    st.text(min_size=1),
    st.floats(0, 1),
    st.floats(1e-9, 1e9),
    st.dictionaries(st.sampled_from(["correctness", "format"]), st.floats(0, 5), min_size=1),
)
def test_any_valid_recipe_survives_toml(
    name: str, share: float, rate: float, rewards: dict[str, float]
) -> None:
    import tomllib

    recipe = check_recipe(
        {
            "name": name,
            "tasks": {"disclosed": share},
            "stages": [{"kind": "policy_gradient", "learning_rate": rate, "rewards": rewards}],
        }
    )
    assert check_recipe(tomllib.loads(to_toml(recipe))) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_loads_under_its_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    shorter = "learner.steps=3" if recipe.stages else "skills.iterations=3"
    apply_overrides(recipe.model_dump(), [shorter])


def test_packaged_recipes_are_found_by_name(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_recipe_folder", lambda: tmp_path)
    assert recipe_names() == ["mine"]
    assert load_recipe("mine") == load_recipe(path)
    with pytest.raises(UnknownName, match="unknown recipe 'mime': did you mean 'mine'"):
        load_recipe("mime")


def test_learner_is_the_last_policy_gradient_stage(path: Path) -> None:
    recipe = load_recipe(path, ["learner.steps=3", "stages.0.steps = 9", "tasks.disclosed=1"])
    assert [stage.steps for stage in recipe.stages] == [9, 3, 260]
    assert recipe.tasks.disclosed == 1.0
    only = {"name": "d", "stages": [{"kind": "distil"}, {"kind": "distil"}]}
    assert apply_overrides(only, ["learner.steps=3"])["stages"] == [
        {"kind": "distil"},
        {"kind": "distil", "steps": 3},
    ]


def test_values_are_toml_and_bare_words_are_text(path: Path) -> None:
    overrides = [
        "learner.anchor=majority",
        "learner.anchor_options={}",
        'learner.game="solo"',
        "learner.rewards.format=0.1",
        "learner.spans=true",
        "tasks.speakers=['user', 'peers']",
    ]
    recipe = load_recipe(path, overrides)
    stage = gradient(recipe)
    assert (stage.anchor, stage.game, stage.spans) == ("majority", "solo", True)
    assert stage.rewards == {"correctness": 1.0, "brier": 0.5, "format": 0.1}
    assert recipe.tasks.speakers == ["user", "peers"]
    assert load_recipe(path).tasks.speakers == ["user"]


def test_an_override_below_a_missing_table_starts_from_its_default() -> None:
    recipe = check_recipe(apply_overrides(table(), ["learner.rewards.brier=0.25"]))
    assert gradient(recipe, 0).rewards == {"correctness": 1.0, "brier": 0.25}


def test_overrides_leave_the_table_they_were_given_alone() -> None:
    data = table(steps=5)
    assert apply_overrides(data, ["learner.steps=6"]) != data
    assert data == table(steps=5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.stepz=3", "unknown key 'learner.stepz': did you mean 'learner.steps'"),
        ("stages.0.labelss=3", "did you mean 'stages.0.labels'"),
        ("stages.3.steps=3", "unknown key 'stages.3.steps'"),
        ("stages.-1.steps=3", "unknown key"),
        ("lerner.steps=3", r"unknown key 'lerner.steps'.*learner"),
        ("task.disclosed=1", r"unknown key 'task.disclosed'.*tasks"),
        ("tasks.file.pth=a", "did you mean 'tasks.file.path'"),
        ("learner.steps.more=3", "unknown key 'learner.steps.more'"),
        ("learner..steps=3", "unknown key"),
        ("learner=3", r"name one of its keys"),
        ("learner.steps", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("learner.steps=", "cannot read the value"),
        ("learner.steps=3x", "cannot read the value"),
        ("learner.steps=3\nname = 'x'", "cannot read the value"),
    ],
)
def test_bad_overrides(path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(path, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.steps=0", r"stages\.1\.steps: input should be greater than or equal to 1, not 0"),
        ("learner.steps=2.5", r"stages\.1\.steps: .*integer"),
        ("learner.steps='3'", r"stages\.1\.steps: .*integer, not '3'"),
        ("learner.spans=1", r"stages\.1\.spans: .*boolean"),
        ("learner.learning_rate=nan", r"stages\.1\.learning_rate: .*finite"),
        ("learner.learning_rate=inf", r"stages\.1\.learning_rate: .*finite"),
        ("learner.alone_share=1.1", r"stages\.1\.alone_share"),
        ("learner.advantage=median", r"stages\.1\.advantage: .*'mean'"),
        ("learner.group=1", r"stages\.1: group must be at least 2"),
        ("learner.game=objektion", r"unknown game 'objektion': did you mean 'objection'"),
        ("learner.anchor=truht", r"unknown anchor 'truht': did you mean 'truth'"),
        ("learner.anchor_options.agre=1", r"did you mean 'agree'"),
        ("learner.anchor_options.agree=2", r"approval\.agree must be from 0 to 1, not 2"),
        ("learner.anchor_options.agree='2'", r"approval\.agree must be from 0 to 1, not '2'"),
        ("learner.rewards.brier=1.5", r"stages\.1: .*failing on purpose"),
        ("learner.rewards.brierr=1", r"unknown reward 'brierr': did you mean 'brier'"),
        ("learner.rewards.brier='a'", r"stages\.1\.rewards\.brier: .*number"),
        ("stages.0.labels=-1", r"stages\.0\.labels: .*greater than or equal to 0, not -1"),
        ("checkpoint_every=0", r"checkpoint_every: .*greater than or equal to 1, not 0"),
        ("stages.0.kind=destil", r"stages\.0: unknown stage kind 'destil': did you mean 'distil'"),
        ("stages=[]", r"the recipe has no stages"),
        ("stages=[{steps=3}]", r"stages\.0\.kind is missing"),
        ("stages=3", r"stages: .*list"),
        ("tasks.families=['summ']", r"tasks: unknown family 'summ': did you mean 'sum'"),
        ("tasks.families=[]", r"tasks\.families: .*at least 1"),
        ("tasks.speakers=['me']", r"tasks\.speakers\.0: .*'user'"),
        ("tasks.file={path='a.jsonl', grader='numbr'}", r"did you mean 'number'"),
        ("tasks.file.limit=3", r"tasks\.file\.path is missing; add it"),
        ("name=3", r"name: .*string"),
    ],
)
def test_bad_values(path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path, [override])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_keys_in_the_file_are_named(path: Path) -> None:
    path.write_text(TOML.replace("steps = 7", "stepz = 7"))
    with pytest.raises(
        UnknownName, match=r"unknown key 'stages\.1\.stepz': did you mean 'stages\.1\.steps'"
    ):
        load_recipe(path)
    path.write_text(TOML.replace("disclosed", "disclose"))
    with pytest.raises(UnknownName, match=r"did you mean 'tasks\.disclosed'"):
        load_recipe(path)
    path.write_text("nam = 'x'\n" + TOML)
    with pytest.raises(UnknownName, match="did you mean 'name'"):
        load_recipe(path)
    path.write_text("name = 'x'")
    with pytest.raises(ConfigError, match="the recipe has no stages"):
        load_recipe(path)


def test_bad_files(path: Path, tmp_path: Path) -> None:
    path.write_text("name = 'x'\nsteps = \n")
    with pytest.raises(ConfigError, match=r"not valid TOML: .*line 2"):
        load_recipe(path)
    path.write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_recipe(path)
    with pytest.raises(ConfigError, match="there is no recipe file"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "folder.toml")


def test_a_recipe_cannot_be_changed_by_accident(path: Path) -> None:
    stage = gradient(load_recipe(path))
    with pytest.raises(ValueError, match="frozen"):
        stage.steps = 3  # type: ignore[misc]
