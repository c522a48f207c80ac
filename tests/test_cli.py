"""The command line: every mistake is one sentence, and what ran before is never lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from calling import Ran, Run, sentence
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from demur import cli
from demur.config import load_recipe, recipe_names
from demur.runlog import read_metrics

SOURCES = str(Path(cli.__file__).parents[1])
SMALL = [
    *("--set", "tasks.pool=6", "--set", "tasks.private_samples=2", "--set", "learner.prompts=4"),
    *("--set", "learner.group=2"),
]
COMMANDS = (
    *("study", "train", "evaluate", "score", "report", "export", "recipes", "pretrain", "bench"),
    "argue",
)


def write(path: Path, *rows: object) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0 and ran.err == ""
    examples = [
        line for line in ran.out.splitlines() if line.strip().startswith(f"demur {command}")
    ]
    assert len(examples) >= 2
    for option in {w for e in examples for w in e.split() if w.startswith("--")}:
        assert ran.out.count(option) > sum(option in example for example in examples), option


def test_help_lists_the_commands(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0 and all(command in ran.out for command in COMMANDS)
    assert run("--version").out.startswith("demur 0.")


def test_recipes_can_be_listed_shown_and_used(run: Run, tmp_path: Path) -> None:
    listed = run("recipes")
    assert listed.code == 0 and all(name in listed.out for name in recipe_names())
    written = sum(load_recipe(name).source.count("1[right]") for name in recipe_names())
    assert listed.out.count("1[right]") == written > 0, "model and recipe text is no markup"
    shown = run("recipes", "demur")
    mine = tmp_path / "mine.toml"
    mine.write_text(shown.out)
    assert load_recipe(mine) == load_recipe("demur")


# -- mistakes on the line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a command"),
        (("studdy",), "no such command 'studdy'"),
        (("study", "--bogus"), "no such option: --bogus"),
        (("study", "--seeds", "0"), "invalid value for '--seeds'"),
        (("study", "--seeds", "two"), "invalid value for '--seeds'"),
        (("train", "majority"), "missing option '--out'"),
        (("train", "--out", "x"), "missing argument 'recipe'"),
        (("train", "majorty", "--out", "x"), "unknown recipe 'majorty': did you mean 'majority'?"),
        (("train", "x.toml", "--out", "x"), "there is no recipe file x.toml"),
        (("recipes", "rclr_objection"), "did you mean 'rlcr_objection'?"),
        (("study", "--arms", "majority,demurr", "--out", "x"), "did you mean 'demur'?"),
        (("evaluate", "nowhere", "--out", "x"), "no model folder at nowhere"),
        (("report", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_a_mistyped_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in sentence(run(*arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("learner.stepz=3", "unknown key 'learner.stepz': did you mean 'learner.steps'?"),
        ("learner.steps", "write it as key=value"),
        ("learner.steps=many", "stages.0.steps: input should be a valid integer, not 'many'"),
        ("learner.steps=-1", "stages.0.steps"),
        ("learner.steps=3x", "cannot read the value of --set learner.steps=3x"),
        ("learner.anchor=truht", "unknown anchor 'truht': did you mean 'truth'?"),
        ("learner.game=objektion", "unknown game 'objektion': did you mean 'objection'?"),
        ("learner.rewards.brierr=1", "unknown reward 'brierr': did you mean 'brier'?"),
        ("learner.rewards.brier=2.0", "failing on purpose"),
        ("tasks.families=['sums']", "unknown family 'sums': did you mean 'sum'?"),
        ("learner.learning_rate=nan", "finite"),
        ("☃=1", "unknown key '☃'"),
    ],
)
def test_a_setting_that_makes_no_sense(run: Run, tmp_path: Path, given: str, said: str) -> None:
    out = tmp_path / "run"
    assert said in sentence(run("train", "majority", "--out", out, "--set", given))
    assert not out.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("k=0", "k: "),
        ("kk=3", "unknown key 'kk'"),
        ("disclosed=2", "disclosed: "),
        ("n=abc", "n: "),
        ("user_claims", "write it as key=value"),
    ],
)
def test_a_setting_of_an_evaluation_that_makes_no_sense(
    run: Run, tmp_path: Path, given: str, said: str
) -> None:
    out = tmp_path / "eval"
    assert said in sentence(run("evaluate", "seed", "--out", out, "--set", given))
    assert not out.exists()


def test_a_malformed_recipe_is_named_with_its_line(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    for content, said in (
        ('name = "x"\n[[stages]]\nkind = \n', "line 3"),
        ('name = "x"\nstages = 3\n', "stages"),
        ('name = "x"\ntasks = 3\n[[stages]]\nkind = "distil"\n', "tasks"),
        ('name = "x"\n[[stages]]\nkind = "distill"\n', "did you mean 'distil'?"),
        (
            'name = "x"\n[[stages]]\nkind = "distil"\nlables = 3\n',
            "did you mean 'stages.0.labels'?",
        ),
        ("\0", "not valid TOML"),
    ):
        recipe.write_text(content)
        file = write(tmp_path / "t.jsonl", {"question": "1+1?", "answer": 2})
        for more in ((), ("--tasks", file)):
            ran = run("train", recipe, "--out", tmp_path / "run", *more)
            assert said in sentence(ran) and str(recipe) in sentence(ran)
    assert not (tmp_path / "run").exists()


# -- model folders --------------------------------------------------------------------------------


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncated(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pickled(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def torn_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:50])


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def remote_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Model: pass\n")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_weights, "has no *.safetensors weights"),
        (truncated, "copy the folder again whole"),
        (empty_weights, "copy the folder again whole"),
        (pickled, "holds pickled weights, which can run code; convert them to safetensors"),
        (torn_config, "copy the folder again whole"),
        (without_tokenizer, "has no tokenizer.json"),
        (remote_code, "the model in"),
    ],
)
def test_a_damaged_model_folder(
    run: Run, tmp_path: Path, random_model: Path, damage: Callable[[Path], None], said: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_model, folder)
    damage(folder)
    evaluated = run("evaluate", folder, "--out", tmp_path / "a", "--n", 1, "--quiet")
    trained = run("train", "majority", "--model", folder, "--out", tmp_path / "b", "--quiet")
    for ran in (evaluated, trained):
        assert said in sentence(ran) and str(folder) in sentence(ran)
        assert ran.out == ""
    assert not (folder / "ran").exists(), "code from a model folder was run"


def test_a_file_is_no_model_folder(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "model.safetensors", "x")
    said = sentence(run("evaluate", file, "--out", tmp_path / "a"))
    assert "is a file; give the folder that holds config.json" in said


# -- task files -----------------------------------------------------------------------------------

GOOD = {"question": "1+1?", "answer": "so\n#### 2"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, "there is no task file"),
        ([], "is empty; write at least one row"),
        ([{"question": "a"}], "line 1 has no column 'answer'"),
        ([{"q": "a", "answer": "1"}], "has no column 'question'"),
        ([GOOD, GOOD, '{"question": '], "line 3 is not valid JSON"),
        ([GOOD, {"question": "", "answer": "1"}], "line 2: 'question' is empty"),
    ],
)
def test_a_bad_task_file(
    run: Run, tmp_path: Path, random_model: Path, rows: list[object] | None, said: str
) -> None:
    file = tmp_path / "tasks.jsonl"
    if rows is not None:
        write(file, *rows)
    out = tmp_path / "out"
    for command in (("evaluate", random_model), ("train", "majority", "--model", random_model)):
        ran = run(*command, "--tasks", file, "--out", out, "--quiet")
        assert said in sentence(ran) and str(file) in sentence(ran)
        assert not out.exists(), "a mistake leaves no folder that would be in the way"


def test_an_unknown_grader_or_column_leaves_nothing_behind(
    run: Run, tmp_path: Path, random_model: Path
) -> None:
    file, out = write(tmp_path / "t.jsonl", GOOD), tmp_path / "out"
    for command in (("evaluate", random_model), ("train", "majority", "--model", random_model)):
        ran = run(*command, "--tasks", file, "--out", out, "--grader", "numbr")
        assert "unknown grader 'numbr': did you mean 'number'?" in sentence(ran)
        ran = run(*command, "--tasks", file, "--out", out, "--question", "questions")
        assert "did you mean 'question'?" in sentence(ran)
    assert not out.exists()


# -- GSM8K ----------------------------------------------------------------------------------------


def check_evaluation(ran: Ran, out: Path, tasks: int) -> dict[str, object]:
    """It said calmly what it found, with intervals, and the figures hold together."""
    assert ran.code == 0 and ran.err == "", ran
    found = json.loads((out / "evaluation.json").read_text())
    ((name, metrics),) = found["arms"].items()
    for metric in ("coverage", "accuracy_alone"):
        if metrics[metric]["n"]:
            assert 0 <= metrics[metric]["low"] <= metrics[metric]["mean"] <= metrics[metric]["high"]
    assert metrics["coverage"]["n"] >= tasks
    assert f"{name}: {metrics['coverage']['mean']:.1%} of the replies could be read" in ran.out
    assert len(found["verdict"]["sentences"]) == 5 and found["verdict"]["passed"] is None
    assert set(found["baselines"]) >= {"always_keep", "bayes_oracle"}
    *sentences, power = found["verdict"]["sentences"]
    for said in sentences:
        assert "nan" not in said.split() and "nan%" not in said
        assert any(part in said for part in ("95% interval", "no interval", "nothing to say on"))
    assert "told apart" in power or "too few exchanges" in power
    assert (out / "report.html").stat().st_size > 10_000
    return dict(metrics)


GSM8K_ROWS = [
    {
        "question": f"Ann has {i} crates of {i + 2} figs — how many is that, at ${i}.50 each?",
        "answer": f"She has {i}*{i + 2}=<<{i}*{i + 2}={i * (i + 2)}>>.\n#### {answer}",
    }
    for i, answer in zip(
        range(2, 14),
        ["8", "1,500", "24", "2.5", "-240", "-3", "80", "$99", "120", "0", "168", "1000000"],
        strict=True,
    )
]


def test_a_file_like_gsm8k_is_evaluated_calmly(
    run: Run, tmp_path: Path, speaker_model: Path, random_model: Path
) -> None:
    file = write(tmp_path / "gsm8k.jsonl", *GSM8K_ROWS)
    for model in (speaker_model, random_model):
        out = tmp_path / model.name
        given = ("--tasks", file, "--n", 8, "--set", "k=2", "--max-tokens", 24, "--out", out)
        ran = run("evaluate", model, *given, "--quiet")
        metrics = check_evaluation(ran, out, 8)
        assert model.name in metrics or metrics["accuracy_alone"]["mean"] in (0.0, None)  # type: ignore[index]
        before = contents(out)
        again = run("evaluate", model, *given, "--quiet")
        assert "already holds a run; add --resume" in sentence(again)
        other = run("evaluate", model, *given[:-2], "--out", out, "--seed", 3, "--resume")
        assert "seed was 0 and is now 3" in sentence(other)
        assert contents(out) == before
        resumed = run("evaluate", model, *given, "--quiet", "--resume")
        assert resumed.code == 0
        same = json.loads((out / "evaluation.json").read_bytes())
        assert same == json.loads(before["evaluation.json"])


def test_words_and_options_as_answers_are_evaluated_too(
    run: Run, tmp_path: Path, random_model: Path
) -> None:
    answers = ("(a)", "Alice", "yes", "05/01/2021", "B", None)
    rows = [{"inputs": f"Which {i}?", "target": a} for i, a in enumerate(answers)]
    file, out = write(tmp_path / "words.jsonl", *rows), tmp_path / "out"
    columns = ("--question", "inputs", "--answer", "target")
    ran = run(
        *("evaluate", random_model, "--tasks", file, *columns, "--set", "k=2"),
        *("--max-tokens", 8, "--out", out, "--quiet"),
    )
    check_evaluation(ran, out, 6)


@pytest.mark.skipif("DEMUR_GSM8K" not in os.environ, reason="DEMUR_GSM8K names no GSM8K file")
def test_gsm8k_itself_is_evaluated_calmly(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    file = os.environ["DEMUR_GSM8K"]
    given = ("--tasks", file, "--n", 20, "--set", "k=2", "--max-tokens", 40)
    metrics = check_evaluation(run("evaluate", "seed", *given, "--out", out, "--quiet"), out, 20)
    assert metrics["coverage"]["mean"] is not None  # type: ignore[index]


# -- training -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(speaker_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that ended well."""
    out = tmp_path_factory.mktemp("train") / "out[1]"
    arguments = ["demur", "train", "majority", "--model", str(speaker_model), "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*arguments, *SMALL, "--set", "learner.steps=2", "--quiet"])
        cli.main()
    return out


def test_a_run_leaves_a_model_a_log_and_a_report(run: Run, trained: Path) -> None:
    assert {p.name for p in trained.iterdir()} == {
        "config.toml",
        "metrics.jsonl",
        "private.parquet",
        "checkpoints",
        "report.html",
    }
    assert [line["step"] for line in read_metrics(trained / "metrics.jsonl")] == [1, 2]
    AutoModelForCausalLM.from_pretrained(trained / "checkpoints" / "step-2")
    AutoTokenizer.from_pretrained(trained / "checkpoints" / "step-2")
    ran = run("report", trained, "--out", trained.parent / "again.html")
    assert ran.code == 0 and ran.out.strip().endswith("again.html")


def test_a_folder_with_a_run_is_resumed_or_refused(
    run: Run, trained: Path, speaker_model: Path, random_model: Path
) -> None:
    before = contents(trained)
    given = ("train", "majority", "--out", trained, *SMALL, "--set", "learner.steps=2", "--quiet")
    speaker = ("--model", speaker_model)
    assert "already holds a run; add --resume" in sentence(run(*given, *speaker))
    for changed, said in (
        ((*speaker, "--seed", 1), "seed was 0 and is now 1"),
        ((*speaker, "--set", "learner.steps=3"), "recipe.stages.0.steps was 2 and is now 3"),
        (("--model", random_model), "model was"),
    ):
        assert said in sentence(run(*given, *changed, "--resume"))
    assert contents(trained) == before
    ran = run(*given, *speaker, "--resume")
    assert ran.code == 0 and ran.err == ""
    assert str(trained / "checkpoints" / "step-2") in ran.out, "brackets in a path are shown"
    after = contents(trained)
    assert {k: v for k, v in after.items() if k != "report.html"} == {
        k: v for k, v in before.items() if k != "report.html"
    }
    (trained.parent / "mine.txt").write_text("my own file")
    assert "is not empty and holds no run" in sentence(
        run("train", "majority", "--out", trained.parent, *speaker)
    )


def test_a_rate_out_of_hand_stops_the_run_and_keeps_the_last_good_checkpoint(
    run: Run, tmp_path: Path, speaker_model: Path
) -> None:
    out = tmp_path / "run"
    given = (
        *("train", "demur", "--model", speaker_model, "--out", out, *SMALL, "--quiet"),
        *("--set", "stages.0.steps=2", "--set", "stages.0.batch=8", "--set", "learner.steps=9"),
        *("--set", "learner.learning_rate=1e15"),
    )
    said = sentence(run(*given))
    assert "learning rate" in said and "nan" in said.lower()
    assert "--resume" not in said, "the same settings would fail in the same way"
    (kept,) = (out / "checkpoints").iterdir()
    assert kept.name == "step-2" and (kept / "complete.json").exists()
    model = AutoModelForCausalLM.from_pretrained(kept)
    assert all(torch.isfinite(p).all() and p.abs().max() < 100 for p in model.parameters())
    further = run(
        *("train", "majority", "--model", kept, "--out", tmp_path / "next", *SMALL, "--quiet"),
        *("--set", "learner.steps=1"),
    )
    assert further.code == 0, "one can start again from it"


def test_unreadable_replies_are_data_in_training_too(
    run: Run, tmp_path: Path, random_model: Path
) -> None:
    file = write(tmp_path / "t.jsonl", *GSM8K_ROWS[:5], {"question": "Why?", "answer": None})
    out = tmp_path / "run"
    ran = run(
        *("train", "demur", "--model", random_model, "--tasks", file, "--out", out, *SMALL),
        *("--set", "stages.0.steps=1", "--set", "learner.steps=2", "--set", "learner.max_tokens=8"),
        *("--set", "tasks.speakers=['user', 'peers', 'self']", "--quiet"),
    )
    assert ran.code == 0 and ran.err == "", ran
    steps = read_metrics(out / "metrics.jsonl")
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert steps[-1]["coverage"] == 0.0 and steps[-1]["confidence_mean"] is None


# -- disks ----------------------------------------------------------------------------------------


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_limit_on_files_is_one_sentence_and_loses_nothing(
    run: Run, tmp_path: Path, speaker_model: Path
) -> None:
    out = tmp_path / "run"
    given = ("train", "majority", "--model", speaker_model, "--out", out, *SMALL, "--quiet")
    given = (*given, "--set", "learner.steps=2", "--set", "checkpoint_every=1")
    with files_at_most(20_000):
        said = sentence(run(*given))
    assert "too large" in said and str(out) in said
    assert not list((out / "checkpoints").iterdir()), "no half-written checkpoint stays"
    assert [line["step"] for line in read_metrics(out / "metrics.jsonl")] == [1]
    ran = run(*given, "--resume")
    assert ran.code == 0
    assert [line["step"] for line in read_metrics(out / "metrics.jsonl")] == [1, 2]
    with files_at_most(20_000):
        said = sentence(run("pretrain", "--out", tmp_path / "seed", "--steps", 1, "--quiet"))
    assert "too large" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    run: Run, small_disk: Path, random_model: Path
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 60_000)
    out = small_disk / "run"
    given = ("train", "majority", "--model", random_model, "--out", out, *SMALL, "--quiet")
    given = (*given, "--set", "learner.steps=1", "--set", "tasks.max_tokens=4")
    said = sentence(run(*given, "--set", "learner.max_tokens=4"))
    assert "the disk is full; free some space, then go on with --resume" in said
    assert (out / "config.toml").exists() and not list((out / "checkpoints").iterdir())
    out = small_disk / "eval"
    filler.write_bytes(b"x" * 150_000)
    said = sentence(
        run("evaluate", random_model, "--out", out, "--n", 4, "--set", "k=2", "--max-tokens", 4)
    )
    assert "the disk is full; free some space" in said
    assert not list(out.glob("*.parquet")), "no half-written table stays"


# -- stopping -------------------------------------------------------------------------------------


def test_ctrl_c_stops_a_study_with_one_sentence(tmp_path: Path, speaker_model: Path) -> None:
    """The signal goes to the whole group of processes, as a terminal sends it."""
    out = tmp_path / "study"
    child = subprocess.Popen(
        [
            *(sys.executable, "-c", "from demur.cli import main; main()"),
            *("study", "--arms", "majority", "--seeds", "2", "--workers", "2", "--tasks", "4"),
            *("--model", str(speaker_model), "--out", str(out), "--quiet", *SMALL),
            *("--set", "learner.steps=5000"),
        ],
        env={**os.environ, "PYTHONPATH": SOURCES, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 100
        while not list(out.glob("runs/*/*/metrics.jsonl")):
            assert child.poll() is None and time.monotonic() < end, child.communicate()[1]
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        said, complained = child.communicate(timeout=60)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 130, complained
    assert said == ""
    assert complained == "demur: stopped; nothing is lost but the step in hand: --resume goes on\n"
    assert not (out / "study.json").exists()
    assert [line["step"] for p in out.glob("runs/*/*/metrics.jsonl") for line in read_metrics(p)]


def test_the_process_ends_with_the_code(tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "from demur.cli import main; main()",
            "train",
            "majorty",
            "--out",
            "x",
        ],
        env={**os.environ, "PYTHONPATH": SOURCES},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 2 and ran.stdout == "" and list(tmp_path.iterdir()) == []
    assert ran.stderr.startswith("demur: unknown recipe 'majorty': did you mean 'majority'?")
    assert ran.stderr.count("\n") == 1


# -- skills ---------------------------------------------------------------------------------------


def test_skills_are_learned_shown_and_exported(run: Run, tmp_path: Path) -> None:
    out, mine = tmp_path / "run", tmp_path / "mine"
    given = ("train", "ctx2skill_notes", "--out", out, "--set", "skills.iterations=2")
    ran = run(*given, "--quiet")
    assert ran.code == 0 and "rho hard" in ran.out and str(out / "skills" / "chosen") in ran.out
    assert "kept" in ran.out and (out / "report.html").exists()
    before = (out / "calls.jsonl").read_bytes()
    again = run(*given, "--quiet", "--resume")
    assert again.code == 0 and (out / "calls.jsonl").read_bytes() == before
    assert "already holds a run" in sentence(run(*given))
    assert run("export", out, "--out", mine).code == 0
    files = sorted(mine.glob("*/SKILL.md"))
    assert files and files[0].read_text().startswith(f"---\nname: {files[0].parent.name}\n")
    assert "not empty; name another --out" in sentence(run("export", out, "--out", mine))
    assert "did you mean 'skills'" in sentence(
        run("export", out, "--format", "skill", "--out", mine)
    )


def test_what_skills_cannot_do_is_said_before_any_work(
    run: Run, tmp_path: Path, trained: Path
) -> None:
    out = tmp_path / "out"
    tasks = write(tmp_path / "t.jsonl", {"question": "1+1?", "answer": "2"})
    url = "http://127.0.0.1:9/v1"
    for given, said in (
        (("train", "ctx2skill", "--tasks", tasks), "skills.context=FILE"),
        (("train", "ctx2skill", "--set", "skills.context=gone.md"), "cannot read the context"),
        (("train", "demur", "--endpoint", url), "a server's cannot be reached"),
        (("study", "--arms", "ctx2skill"), "changes no weights"),
        (("export", trained), "holds no skills"),
    ):
        assert said in sentence(run(*given, "--out", out))
        assert not out.exists()
    judged = ("anchored_judge", "--set", f"anchor.endpoint={url}")
    for given in (("ctx2skill", "--endpoint", url, "--model", "m"), judged):
        ran = run("train", *given, "--out", out, "--quiet")
        assert "cannot be reached; is it running" in sentence(ran)
        assert not out.exists()
