"""The skills loop: what is shown to whom, what is read, what is learned, and where it goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.config import check_recipe, load_recipe
from demur.errors import ConfigError, RunFolderError
from demur.policies.local import LocalPolicy
from demur.recipe import ROLES, Skills
from demur.runlog import RunFolder, read_metrics
from demur.schema import Completion, Dialogue, Sampling
from demur.skills import replay, roles
from demur.skills.loop import NothingPosed, SkillRun, material
from demur.skills.notes import MOST_KEPT, NoteRules, exam_of, long_context
from demur.skills.roles import Asked, Case, Cut, Edit, Problem
from demur.skills.skillset import Skill, as_set, choose, make_skill, read_skills, write_skills
from demur.world.seed import SEED_FOLDER

RULED = {role: {"by": "rules"} for role in ROLES if role != "reasoner"}


@pytest.fixture(scope="module")
def seed_model() -> LocalPolicy:
    return LocalPolicy.from_folder(SEED_FOLDER)


class Says:
    """A policy that answers every role in the protocol, and can be told to break down."""

    name = "says"

    def __init__(self, breaks_at: int | None = None, nonsense: tuple[str, ...] = ()) -> None:
        self.calls, self._breaks_at, self._nonsense = 0, breaks_at, nonsense

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        self.calls += 1
        if self.calls == self._breaks_at:
            raise KeyboardInterrupt
        return [[Completion(self._say(d[0].content, d[-1].content))] for d in dialogues]

    def _say(self, system: str, user: str) -> str:
        role = next(r for r, begins in OPENINGS.items() if system.startswith(begins))
        if role in self._nonsense:
            return "What a lovely day for <task> and <verdict>2</verdict>."
        match role:
            case "challenger":
                harder = "harder" in user
                tasks = ("Who wrote it?", "When?", "How long is it?")
                return "".join(
                    f"<task>{t}</task><rubric>names it</rubric>" + "<rubric>is brief</rubric>" * i
                    for i, t in enumerate(tasks[:2] if harder else tasks)
                )
            case "reasoner":
                return "<answer>Ann</answer>" if "Who" in user or "look" in user else "no idea"
            case "judge":
                return "<verdict>1</verdict>" * (user.count("\n") - 2)
            case "proposer":
                which = "lookup" if "failed" in system else "harder"
                return (f"<action>add</action><target>{which}</target><description>d</description>"
                        "<justification>j</justification>")  # fmt: skip
        name = "lookup" if "lookup" in user else "harder"
        advice = "look it up" if name == "lookup" else "ask what is harder"
        return f'<skill name="{name}" description="always">{advice}</skill>'


OPENINGS = {
    "challenger": "You write tasks",
    "reasoner": "You answer a question",
    "judge": "You check an answer",
    "proposer": "You look after",
    "generator": "You keep a set",
}


def config(tmp_path: Path, **more: Any) -> Skills:
    (tmp_path / "text.md").write_text("Ann wrote it in May.\n")
    table = {"context": str(tmp_path / "text.md"), "iterations": 2, "tasks": 3} | more
    found = check_recipe({"name": "x", "skills": table}).skills
    assert found is not None
    return found


def learn(settings: Skills, policy: Any, out: Path, seed: int = 0) -> dict[str, Any]:
    run = RunFolder(out, {"seed": seed, "skills": settings.model_dump()}, resume=True)
    return SkillRun(settings, policy, run, lambda *_: policy, seed).go()


def calls(out: Path) -> list[dict[str, Any]]:
    return read_metrics(out / "calls.jsonl")


def test_a_run_of_language_models_in_all_roles(tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = learn(config(tmp_path), Says(), out)
    lines = read_metrics(out / "metrics.jsonl")
    assert [(x["problems"], x["solved"], x["failed"]) for x in lines] == [(3, 1, 2), (2, 2, 0)]
    assert lines[0]["unread_reasoner"] == 2 and "exam" not in lines[0]
    assert found["chosen"] == 1 and [q["question"] for q in found["hard"]] == ["When?"]
    assert [q["question"] for q in found["easy"]] == ["Who wrote it?", "Who wrote it?"]
    assert found["iterations"][0]["rho_hard"] == 1.0 == found["iterations"][0]["rho_easy"]
    [kept] = read_skills(out / "skills" / "chosen")
    assert kept == Skill("lookup", "always", "look it up")
    [theirs] = read_skills(out / "skills" / "iteration-1" / "challenger")
    assert theirs.name == "harder"
    trace = read_metrics(out / "iterations.jsonl")
    assert trace[0]["cases"][1]["solved"] is False and trace[0]["cases"][0]["met"] == [True]
    first, last = trace[0]["calls"]
    assert [c["role"] for c in calls(out)][first - 1 : last] == [
        "challenger", "reasoner", "judge", "proposer", "generator", "proposer", "generator",
    ]  # fmt: skip


def test_neither_side_sees_the_others_skills(tmp_path: Path) -> None:
    learn(config(tmp_path, iterations=3), Says(), tmp_path / "run")
    made = calls(tmp_path / "run")
    shown = {"reasoner": "", "challenger": ""}
    for call in made:
        shown[call["side"]] += json.dumps(call["dialogues"])
    assert "look it up" in shown["reasoner"] and "ask what is harder" in shown["challenger"]
    assert "ask what is harder" not in shown["reasoner"]
    assert "look it up" not in shown["challenger"]
    failed = [c for c in made if c["role"] == "proposer" and c["side"] == "reasoner"]
    assert all("When?" in json.dumps(c["dialogues"]) for c in failed)
    assert "Who wrote it?" not in json.dumps(failed[0]["dialogues"]), "solved tasks go elsewhere"


@pytest.mark.parametrize("breaks_at", range(1, 13))
def test_a_run_goes_on_after_a_kill_at_any_call(tmp_path: Path, breaks_at: int) -> None:
    settings = config(tmp_path)
    whole = Says()
    learn(settings, whole, tmp_path / "whole")
    first = Says(breaks_at)
    with pytest.raises(KeyboardInterrupt):
        learn(settings, first, tmp_path / "run")
    with (tmp_path / "run" / "calls.jsonl").open("a") as file:
        file.write('{"call": 99, "ro')  # a line torn by the kill
    second = Says()
    learn(settings, second, tmp_path / "run")
    assert first.calls - 1 + second.calls == whole.calls, "nothing is asked twice"
    for name in ("calls.jsonl", "iterations.jsonl", "replay.json"):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / "whole" / name).read_text()
    kept, expected = (read_metrics(tmp_path / x / "metrics.jsonl") for x in ("run", "whole"))
    assert [x | {"seconds": 0} for x in kept] == [x | {"seconds": 0} for x in expected]


def test_there_are_as_many_calls_as_the_kill_test_tries(tmp_path: Path) -> None:
    whole = Says()
    learn(config(tmp_path), whole, tmp_path / "run")
    assert whole.calls >= 12


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    settings = config(tmp_path)
    learn(settings, Says(), tmp_path / "run")
    (tmp_path / "text.md").write_text("Bob wrote it.\n")
    with pytest.raises(RunFolderError, match=r"line 1 holds another call"):
        learn(settings, Says(), tmp_path / "run")


@pytest.mark.parametrize("role", [*ROLES])
def test_nonsense_in_any_role_is_counted_and_changes_nothing(tmp_path: Path, role: str) -> None:
    policy = Says(nonsense=(role,))
    if role == "challenger":
        with pytest.warns(NothingPosed, match="not one task"):
            learn(config(tmp_path), policy, tmp_path / "run")
    else:
        learn(config(tmp_path), policy, tmp_path / "run")
    line = read_metrics(tmp_path / "run" / "metrics.jsonl")[0]
    assert line[f"unread_{role}"] > 0
    if role == "judge":
        assert line["unjudged"] == 1 and line["solved"] == 0, "no verdict is neither way"
        assert line["failed"] == 2, "an answer that cannot be read has failed all the same"
    if role in ("challenger", "proposer", "generator"):
        assert read_skills(tmp_path / "run" / "skills" / "iteration-2" / "reasoner") == ()


# -- the embedded notes ---------------------------------------------------------------------------


def notes(**more: Any) -> Skills:
    table = load_recipe("ctx2skill_notes").model_dump(exclude_none=True)
    found = check_recipe(table | {"skills": table["skills"] | more}).skills
    assert found is not None
    return found


def test_the_seed_model_learns_to_read_a_long_context(
    seed_model: LocalPolicy, tmp_path: Path
) -> None:
    learn(notes(iterations=6), seed_model, tmp_path / "run")
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    exam = [x["exam"] for x in lines]
    assert lines[0]["exam_before"] < 0.3 and exam[-1] > 0.6 and exam[0] < exam[2] < exam[-1]
    by = {c["role"]: c["by"] for c in calls(tmp_path / "run")}
    assert by == {r: "rules" for r in RULED} | {"reasoner": seed_model.name}


def test_an_adversary_spoils_the_skills_and_replay_goes_back(
    seed_model: LocalPolicy, tmp_path: Path
) -> None:
    found = learn(notes(adversarial_from=6), seed_model, tmp_path / "run")
    exam = [x["exam"] for x in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    best, last = max(exam), exam[-1]
    assert last < best - 0.2 and found["chosen"] <= 6
    assert exam[found["chosen"] - 1] > best - 0.15


def test_what_the_exam_asks_is_never_asked_before(tmp_path: Path) -> None:
    context = long_context(48, 3)
    exam = {task.question for task in exam_of(context)}
    rules = NoteRules(3)
    asked = {
        p.question
        for i in range(20)
        for p in roles.read_problems(rules("challenger", Asked(context, count=5, iteration=i)), 5)
    }
    assert len(exam) == 24 and len(asked) > 15 and not asked & exam


def test_rules_that_read_and_write_as_models_do() -> None:
    context = "abaca-bab, eded-cac, ififi-dad, ogogo-gag, ububu-fef"
    rules = NoteRules(0)
    problem = Problem("ififi?", ('The answer is "dad".', 'The answer begins with "d".'))
    judged = rules("judge", Asked(problem=problem, answer="dab"))
    assert roles.read_verdicts(judged, 2) == (False, True)
    odd = Problem("ififi?", ("It is kind.",))
    assert roles.read_verdicts(rules("judge", Asked(problem=odd, answer="x")), 1) == (None,)
    asked = Asked(context, "reasoner", cases=(Case(problem, "dab", (False, True)),))
    edit = roles.read_edit(rules("proposer", asked))
    assert edit is not None and edit.action == "add"
    assert edit.description == "eded-cac, ififi-dad, ogogo-gag"
    made = roles.read_set(rules("generator", Asked(context, "reasoner", edit=edit)))
    assert made == (
        Skill("notes-eded", "for questions about eded, ififi, ogogo", edit.description),
    )
    full = as_set([make_skill(f"n{i}", "", f"a{'abcdefgh'[i % 8]}{'abcdefgh'[i // 8]}-x")
                   for i in range(MOST_KEPT)])  # fmt: skip
    after = roles.read_set(rules("generator", Asked(context, "reasoner", full, edit=edit)))
    assert after is not None and sum(s.body.count("-") for s in after) == MOST_KEPT
    assert "aaa-x" not in after[0].body and "ififi-dad" in after[-1].body, "the oldest goes"


# -- replay ---------------------------------------------------------------------------------------


def test_probes_and_their_formula() -> None:
    def case(question: str, *met: bool | None) -> Case:
        return Case(Problem(question, ("r",) * len(met)), "a", met)

    cases = [case("a", True, True), case("b", True, False), case("c", False, False, True),
             case("d", True), case("e", None, True), case("f", True)]  # fmt: skip
    hard, easy = replay.hardest(cases), replay.easiest(cases)
    assert hard is not None and hard.problem.question == "c"
    assert easy is not None and easy.problem.question == "d", "the first of the shortest"
    assert cases[4].solved is None and replay.hardest(cases[4:5]) is None
    assert replay.rho([]) == 1.0 and replay.rho([True, False, False]) == 0.5
    assert replay.best([0.2, 0.5, 0.5], [1.0, 0.5, 0.5]) == 1


# -- words ----------------------------------------------------------------------------------------


@given(st.text(max_size=200))
def test_reading_never_raises(text: str) -> None:
    roles.read_problems(text, 3)
    roles.read_answer(text)
    assert len(roles.read_verdicts(text, 3)) == 3
    roles.read_edit(text)
    roles.read_set(text)


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=20), st.text(max_size=40), st.text(max_size=60)),
        max_size=5,
    )
)
def test_any_skills_survive_their_files(words: list[tuple[str, str, str]]) -> None:
    import tempfile

    skills = as_set([make_skill(*w) for w in words])
    with tempfile.TemporaryDirectory() as folder:
        write_skills(skills, Path(folder) / "set")
        assert set(read_skills(Path(folder) / "set")) == set(skills)


def test_a_skill_file_is_what_agent_tools_read(tmp_path: Path) -> None:
    skill = make_skill("Read: the NOTES/..", 'when "lost": <look>', "# Look\n\n- it up\x1b[2J")
    assert skill is not None and skill.name == "read-the-notes"
    write_skills((skill,), tmp_path)
    text = (tmp_path / "read-the-notes" / "SKILL.md").read_text()
    assert text == (
        "---\nname: read-the-notes\ndescription: 'when ''lost'': ''look'''\n---\n\n"
        "# Look\n\n- it up[2J\n"
    )
    assert make_skill("...", "x", "y") is None and make_skill("x", "y", " \n") is None
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "SKILL.md").write_text("no front matter")
    with pytest.raises(ConfigError, match="is no skill: begin it with a front matter"):
        read_skills(tmp_path)


def test_skills_that_do_not_fit_are_chosen_by_the_question() -> None:
    skills = tuple(
        Skill(f"s{i}", "", f"about {w} " + "x" * 40)
        for i, w in enumerate(["cats", "dogs", "birds"])
    )
    assert choose(skills, "what do dogs eat?", 1000) == (skills, 0)
    kept, left = choose(skills, "what do dogs eat?", 60)
    assert [s.name for s in kept] == ["s1"] and left == 2
    assert choose(skills, "dogs?", 10) == ((), 3)


def test_a_context_longer_than_the_model_reads_is_cut(
    seed_model: LocalPolicy, tmp_path: Path
) -> None:
    cut = Cut()
    problem = Problem("What?", ())
    long = Asked("word " * 100, skills=(Skill("a", "b", "c" * 300),), problem=problem, reading=100)
    dialogue = roles.reason(long, cut)
    assert len(dialogue[-1].content) < 160 and (cut.skills, cut.contexts) == (1, 1)
    (tmp_path / "text.md").write_text("A long text goes on and on. " * 400)
    settings = config(tmp_path)
    (tmp_path / "text.md").write_text("A long text goes on and on. " * 400)
    run = SkillRun(settings.model_copy(update={"max_tokens": 64}), seed_model,
                   RunFolder(tmp_path / "run", {}), lambda *_: seed_model, 0)  # fmt: skip
    asked = Asked(run.context, problem=problem, reading=run._reading)
    assert len(seed_model.prompt_ids(roles.reason(asked, cut))) + 64 <= seed_model.context


def test_bad_settings_are_one_sentence(tmp_path: Path) -> None:
    empty = tmp_path / "empty.md"
    empty.write_text(" \n")
    with pytest.raises(ConfigError, match=r"is empty; skills\.context names a text"):
        material(Skills(context=str(empty)), 0)
    with pytest.raises(ConfigError, match=r"cannot read the context .*gone\.md"):
        material(Skills(context=str(tmp_path / "gone.md")), 0)
    for table, said in (
        (
            {"context": "x.md", "roles": {"judge": {"by": "rules"}}},
            "know the embedded world's notes",
        ),
        ({"roles": {"reasoner": {"by": "rules"}}}, "no rules play it"),
        ({"exam": "x.jsonl"}, "bring their own exam"),
        ({"roles": {"juge": {}}}, "roles"),
        ({"tasks": 0}, "tasks"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_recipe({"name": "x", "skills": table})
    with pytest.raises(ConfigError, match="not both"):
        check_recipe({"name": "x", "skills": {}, "stages": [{"kind": "distil"}]})
    with pytest.raises(ConfigError, match="has no stages"):
        check_recipe({"name": "x"})


def test_settings_by_flag() -> None:
    sets = [
        "skills.tasks=2",
        "skills.roles.judge.model=wise",
        "skills.roles.judge.endpoint=http://x",
    ]
    found = load_recipe("ctx2skill", sets).skills
    assert found is not None and found.tasks == 2
    assert found.player("judge").model == "wise" and found.player("reasoner").model == ""
    with pytest.raises(ConfigError, match=r"did you mean 'skills\.tasks'"):
        load_recipe("ctx2skill", ["skills.task=2"])


def test_roles_may_be_played_by_different_models(tmp_path: Path) -> None:
    loaded: list[tuple[str, str]] = []
    other = Says(nonsense=("judge",))

    def load(model: str, endpoint: str) -> Says:
        loaded.append((model, endpoint))
        return other

    settings = config(tmp_path, roles={"judge": {"model": "wise", "endpoint": "http://x/v1"}})
    run = RunFolder(tmp_path / "run", {})
    SkillRun(settings, Says(), run, load, 0).go()
    assert loaded == [("wise", "http://x/v1")]
    assert other.calls == sum(c["role"] == "judge" for c in calls(tmp_path / "run"))


def test_an_edit_says_what_it_wants() -> None:
    text = "<action>Merge</action><target>a</target><description>b</description>"
    assert roles.read_edit(text) == Edit("merge", "a", "b", "")
    assert roles.read_edit(text.replace("Merge", "burn")) is None
