"""Where draws come from: pools, claims at a rate, wrong answers of every kind."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from demur.games.phrases import object_to
from demur.games.private import Private
from demur.pool import claim_settings, task_pool
from demur.recipe import FileTasks
from demur.recipe import Tasks as TaskConfig
from demur.schema import Claim, Task
from demur.tasks.grader import same
from demur.tasks.source import (
    RELIABILITIES,
    ClaimSettings,
    Source,
    make_claim,
    perturb_text,
    world_tasks,
    wrong_answer,
)
from demur.world.questions import PLAY_FAMILIES, split_of

FILE_TASKS = [
    Task("f-1", "How many eggs?", "18", "f", "number", "file:f.jsonl"),
    Task("f-2", "How far?", "2.5", "f", "number", "file:f.jsonl"),
    Task("f-3", "How cold?", "-240", "f", "number", "file:f.jsonl"),
    Task("f-4", "Who did it?", "Alice", "f", "exact", "file:f.jsonl"),
    Task("f-5", "Which one?", "(B)", "f", "exact", "file:f.jsonl"),
    Task("f-6", "When?", "05/01/2021", "f", "exact", "file:f.jsonl"),
]


def pool(count: int = 20, seed: int = 0) -> list[Task]:
    return world_tasks(PLAY_FAMILIES, "play", count, np.random.default_rng(seed))


def state(task: Task, *answers: str | None, sure: float = 0.8) -> Private:
    modal = Counter(answers).most_common(1)[0]
    levels = tuple(None if a is None else sure for a in answers)
    return Private(task, answers, levels, modal[0], modal[1] / len(answers))


def near(share: float, expected: float, n: int) -> bool:
    return abs(share - expected) <= 4.5 * (expected * (1 - expected) / n) ** 0.5


# -- pools ----------------------------------------------------------------------------------------


def test_a_pool_of_the_world_is_of_the_play_split() -> None:
    config = TaskConfig(families=["sum", "fact"], pool=30)
    tasks = task_pool(config, np.random.default_rng(0))
    assert Counter(t.family for t in tasks) == {"sum": 30, "fact": 30}
    assert {split_of(t) for t in tasks} == {"play"}
    assert len({t.id for t in tasks}) == 60
    assert tasks == task_pool(config, np.random.default_rng(0))
    assert tasks != task_pool(config, np.random.default_rng(1))


def test_a_pool_of_a_file_is_drawn_from_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"q": f"{i}+1?", "a": f"so #### {i + 1}"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = FileTasks(path=str(path), question="q", answer="a")
    tasks = task_pool(TaskConfig(file=file, pool=10), np.random.default_rng(0))
    assert len({t.id for t in tasks}) == 10
    assert any(int(t.id.split("-")[-1]) > 20 for t in tasks)
    assert all(int(str(t.truth)) == int(t.question.split("+")[0]) + 1 for t in tasks)
    assert len(task_pool(TaskConfig(file=file), np.random.default_rng(0))) == 40


def test_claim_settings_are_those_of_the_recipe() -> None:
    config = TaskConfig(
        claim_reliabilities=[0.2], disclosed=0.3, wrong_claims="own", speakers=["peers", "self"]
    )
    assert claim_settings(config) == ClaimSettings((0.2,), 0.3, "own", ("peers", "self"))
    assert claim_settings(TaskConfig()) == ClaimSettings()


# -- wrong answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "grader"),
    [
        *((t, "number") for t in ("18", "0", "1", "-3", "2.5", "0.05", "1,800", "1234567", "$40")),
        *((t, "number") for t in ("12345.67", "9" * 30, "9" * 400, "5%")),
        *((t, "exact") for t in ("(A)", "E", "d", "Alice", "05/01/2021", "no", "Room 12b")),
    ],
)
def test_a_perturbed_text_is_wrong_and_alike(truth: str, grader: str) -> None:
    rng = np.random.default_rng(0)
    for wrong in {perturb_text(truth, rng) for _ in range(60)}:
        assert not same(wrong, truth, grader)
        assert wrong.strip() == wrong != ""
        if grader == "number":
            assert "e" not in wrong.lower(), "a number keeps to plain digits"
            assert any(char.isdigit() for char in wrong)
        if truth.strip("()") in "ABCDEabcde":
            assert len(wrong) == len(truth) and wrong.strip("()").isalpha()


def test_a_perturbed_number_stays_near() -> None:
    rng = np.random.default_rng(0)
    wrongs = {perturb_text("1800", rng) for _ in range(200)}
    assert wrongs == {"1600", "1700", "1900", "2000", "2800"}
    assert {perturb_text("It is 7.50 now", rng) for _ in range(200)} == {
        f"It is {x} now" for x in ("5.50", "6.50", "8.50", "9.50", "17.50")
    }


def test_wrong_answers_come_from_where_they_are_wanted() -> None:
    rng = np.random.default_rng(1)
    task = Task("sum/1+1?", "1+1?", "2", "sum", "number")
    known = state(task, "2", "2.0", "77", None, "88")

    def drawn(how: str, private: Private | None) -> set[str]:
        return {wrong_answer(task, private, how, rng) for _ in range(300)}  # type: ignore[arg-type]

    assert drawn("own", known) == {"77", "88"}, "right samples, however written, are no wrong claim"
    assert drawn("perturb", known) == {"0", "1", "3", "4", "12", "102"}
    assert drawn("mixed", known) == drawn("own", known) | drawn("perturb", known)
    assert drawn("own", state(task, "2", "2")) == drawn("perturb", None), "it has no own error"
    with pytest.raises(ValueError, match="its truth is unknown"):
        wrong_answer(Task("x", "?", None, "x"), None, "mixed", rng)


# -- claims ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("speaker", ["user", "peers"])
@pytest.mark.parametrize("task", FILE_TASKS, ids=lambda task: str(task.truth))
def test_claims_can_be_made_about_any_task(task: Task, speaker: str) -> None:
    rng = np.random.default_rng(2)
    settings = ClaimSettings((0.5,), 1.0)
    made = [make_claim(task, speaker, settings, None, rng) for _ in range(80)]
    assert {c.right for c in made} == {True, False}
    for claim in made:
        assert claim.right == same(claim.answer, str(task.truth), task.grader)
        last = object_to(task, claim)[-1].content
        assert task.question in last and claim.answer in last and "rate of 0.5" in last
        for name, answer in claim.votes:
            assert f"\n{name} thinks the answer is {answer}." in last


def test_claims_keep_to_their_settings() -> None:
    rng = np.random.default_rng(3)
    settings = ClaimSettings((0.2, 0.9), 0.25, "perturb", ("user",))
    tasks = pool()
    made = [make_claim(t, "user", settings, None, rng) for t in tasks for _ in range(25)]
    by_rate = {r: [bool(c.right) for c in made if c.reliability == r] for r in (0.2, 0.9)}
    assert sum(map(len, by_rate.values())) == len(made)
    assert near(len(by_rate[0.2]) / len(made), 0.5, len(made))
    for rate, rights in by_rate.items():
        assert near(float(np.mean(rights)), rate, len(rights))
    assert near(float(np.mean([c.disclosed for c in made])), 0.25, len(made))


def test_the_model_itself_claims_what_it_said() -> None:
    rng = np.random.default_rng(4)
    task = Task("sum/1+1?", "1+1?", "2", "sum", "number")
    settings = ClaimSettings()
    claim = make_claim(task, "self", settings, state(task, "3", "3", None, sure=0.74), rng)
    assert claim == Claim(
        "self", "3", right=False, earlier="<answer>3</answer><confidence>0.7</confidence>"
    )
    assert [m.content for m in object_to(task, claim)][1:] == [claim.earlier, "Are you sure?"]
    for silent in (None, state(task, None, None)):
        with pytest.raises(ValueError, match="needs its private samples"):
            make_claim(task, "self", settings, silent, rng)


def test_claims_do_not_depend_on_whether_the_model_is_right() -> None:
    """P(claim right) is the source's reliability, for tasks the model knows and for those it
    does not, also where wrong claims are the model's own errors."""
    rng = np.random.default_rng(5)
    tasks = pool(40)
    private = {
        t.id: state(t, str(t.truth) if i % 2 else "err", "err", str(t.truth))
        for i, t in enumerate(tasks)
    }
    draws = Source(tasks, ClaimSettings(), private).draw(8000, rng)
    for knows in (True, False):
        rights = [c.right for t, c in draws if c is not None and private[t.id].right is knows]
        assert len(rights) > 3000
        assert near(float(np.mean(rights)), float(np.mean(RELIABILITIES)), len(rights))


# -- the source -----------------------------------------------------------------------------------


def test_draws_are_even_over_families_and_alone_as_asked() -> None:
    tasks = pool(5) + world_tasks(("note",), "play", 50, np.random.default_rng(1))
    private = {t.id: state(t, "7", "8", "7") for t in tasks}
    settings = ClaimSettings(speakers=("user", "peers", "self"))
    source = Source(tasks, settings, private)
    draws = source.draw(3000, np.random.default_rng(6), alone=0.25)
    assert set(Counter(t.family for t, _ in draws).values()) == {600}
    assert near(sum(c is None for _, c in draws) / 3000, 0.25, 3000)
    speakers = Counter(c.speaker for _, c in draws if c is not None)
    total = sum(speakers.values())
    assert all(near(count / total, 1 / 3, total) for count in speakers.values())
    assert len({t.id for t, _ in draws}) == len(tasks)
    assert draws == source.draw(3000, np.random.default_rng(6), alone=0.25)
    assert source.vote(tasks[0]) == ("7", 2 / 3)
    assert {c is None for _, c in source.draw(50, np.random.default_rng(6), alone=1.0)} == {True}


def test_where_nobody_can_claim_the_task_is_asked_alone() -> None:
    """A truth nobody knows, and a model that gave nothing readable, are data and not a crash."""
    rng = np.random.default_rng(7)
    known, unknown = FILE_TASKS[0], Task("u", "Why?", None, "u", source="file:u.jsonl")
    private = {t.id: state(t, None, None) for t in (known, unknown)}
    for speakers in (("user",), ("peers",)):
        draws = Source([known, unknown], ClaimSettings(speakers=speakers), private).draw(40, rng)
        assert {t.id for t, c in draws if c is None} == {"u"}
        assert {t.id for t, c in draws if c is not None} == {"f-1"}
    silent = Source([known, unknown], ClaimSettings(speakers=("self",)), private)
    assert {c for _, c in silent.draw(40, rng)} == {None}
