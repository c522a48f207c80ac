"""What is sent to an engine, and what is refused: without one. With one: test_tinker_engine.py."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import Run, sentence

from demur.config import load_recipe
from demur.errors import ConfigError
from demur.games.rounds import Draw
from demur.learners.policy_gradient import PolicyGradient
from demur.policies.connection import Connection
from demur.policies.datums import (
    Draw as Drawn,
)
from demur.policies.datums import (
    Fed,
    Request,
    datum,
    feed_gradient,
    feed_supervised,
    figures,
)
from demur.policies.engine_files import LARGEST, unpack
from demur.recipe import Recipe
from demur.remote import check_remote
from demur.rounds import Round, in_waves
from demur.schema import ExpectedScore, Group, Sample, Sampling, Task

LEVELS = tuple(range(100, 111))
TRAIN = ("train", "correctness", "--policy", "tinker", "--quiet")


def sample(
    length: int = 3, advantage: float = 1.0, group: int = 0, term: ExpectedScore | None = None
) -> Sample:
    ids = tuple(range(10, 10 + length))
    return Sample((1, 2, 3, 4), ids, (-0.5,) * length, (advantage,) * length, group, "r", term)


def test_a_datum_is_shifted_by_one_and_credits_the_completion_alone() -> None:
    made = datum(sample(), (1.0, 2.0, 3.0), 1.0, sums=True)
    assert made.tokens.tolist() == [1, 2, 3, 4, 10, 11]
    assert made.targets.tolist() == [2, 3, 4, 10, 11, 12]
    assert made.credit.tolist() == [0, 0, 0, 1, 2, 3]
    assert made.logprobs.tolist() == [0, 0, 0, -0.5, -0.5, -0.5]


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("normalise", ["bnpo", "grpo", "dr_grpo"])
def test_samples_weigh_against_each_other_as_normalise_says(normalise: Any, sums: bool) -> None:
    """An engine's reduction, undone by the credits, leaves one factor for the whole batch."""
    loss = PolicyGradient(normalise=normalise)
    batch = [sample(2), sample(5, -1.0), sample(9, 0.5)]
    fed = feed_gradient(batch, loss, "ppo", sums)
    (request,) = fed.requests
    assert request.config == {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
    count = len(batch)
    per_token = []
    for made, given in zip(request.datums, batch, strict=True):
        share = 1.0 if sums else 1.0 / (len(made.tokens) * count)
        per_token.append(made.credit[-1] * share / given.advantages[0])
    unit = fed.whole / (1 if sums else fed.count)
    np.testing.assert_allclose(np.array(per_token) / unit, loss.scale(batch).numpy(), rtol=1e-6)


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("weight", [0.01, 10.0])
def test_what_was_not_drawn_weighs_as_much_as_it_is_told(weight: float, sums: bool) -> None:
    """Beside drawn samples, whatever the engine divides by."""
    text = Sample((1, 2), (5, 6), (), (weight, weight), 0)
    fed = feed_gradient([sample(), text], PolicyGradient(), "ppo", sums)
    played, given = fed.requests
    assert (played.loss, played.given, given.given) == ("ppo", False, True)
    if sums:
        assert (given.loss, given.config) == ("cross_entropy", {})
    else:  # the mean of a cross-entropy would be one over its own weights
        assert given.loss == "cispo"
        assert given.config == {"clip_low_threshold": 1.0, "clip_high_threshold": 1.0}
    (one,), (other,) = played.datums, given.datums
    divided = [1 if sums else len(each.tokens) for each in (one, other)]
    per_token = one.credit[-1] / divided[0], other.credit[-1] / divided[1]
    assert per_token == pytest.approx((1.0, weight))
    assert other.credit.tolist()[0] == 0.0 and not other.logprobs.any()
    found = figures([(given, Output([9.0, -1.0, -2.0]))], 2.0)
    assert found["loss"] == pytest.approx(-weight), "as of a ratio of 1, which a local policy has"


@pytest.mark.parametrize("sums", [True, False])
def test_demonstrations_weigh_by_their_tokens(sums: bool) -> None:
    """As in ``Supervised``: each token over the sum of all weights, scores over samples."""
    short, long = stated(3, 1.0), Sample((1,), (5, 6, 7, 8), (), (1.0, 1.0, 0.5, 1.0), 1)
    drawn = Drawn(short, (LEVELS[10], LEVELS[0]), (-0.1, -3.0))
    fed = feed_supervised([short, long], [drawn], sums)
    texts, levels = fed.requests
    weight = sum(short.advantages) + sum(long.advantages)
    assert fed.whole == pytest.approx(weight)
    assert fed.count == 4, "an engine that takes means divides by all that it was sent"
    for made, given in zip(texts.datums, (short, long), strict=True):
        length = 1 if sums else len(made.tokens)
        found = made.credit[-len(given.advantages) :] / length
        assert found == pytest.approx(np.array(given.advantages))
    for made, cost, other in zip(levels.datums, (0.0, 1.0), (1.0, 0.0), strict=True):
        length = 1 if sums else len(made.tokens)
        score = 2.0 * (other - cost) / 2  # its weight, and two draws
        assert made.credit[-1] / length / weight == pytest.approx(score / 2)  # over two samples


def stated(level: int, right: float, weight: float = 2.0) -> Sample:
    """A reply of three tokens, the second of which states a level, paid by Brier."""
    costs = tuple((k / 10 - right) ** 2 for k in range(11))
    term = ExpectedScore(1, LEVELS, costs, weight)
    return Sample((1, 2), (10, LEVELS[level], 12), (-1.0,) * 3, (0.3, 0.0, 0.3), 0, "r", term)


def test_a_stated_level_is_paid_against_others_that_would_be_paid_alike() -> None:
    batch = [stated(9, 1.0), stated(5, 1.0), stated(9, 0.0)]
    (request,) = feed_gradient(batch, PolicyGradient(), "ppo", sums=True).requests
    credit = [made.credit[-2] for made in request.datums]
    mean = 3.0  # tokens a sample: scores are averaged over samples, tokens over tokens
    assert credit[0] == pytest.approx(2.0 * (0.25 - 0.01) * mean)  # against the other right one
    assert credit[1] == pytest.approx(2.0 * (0.01 - 0.25) * mean)
    alone = float(np.mean([(k / 10) ** 2 for k in range(11)]))
    assert credit[2] == pytest.approx(2.0 * (alone - 0.81) * mean)
    assert [made.credit[-1] for made in request.datums] == pytest.approx([0.3] * 3)


def test_the_expected_score_of_drawn_levels_is_that_of_the_formula() -> None:
    """Averaged over draws, the credits give (l_k - b) pi(k): the gradient by the logits."""
    rng = np.random.default_rng(0)
    costs = np.array([(k / 10 - 0.3) ** 2 for k in range(11)])
    logits = rng.normal(size=11)
    pi = np.exp(logits) / np.exp(logits).sum()
    sums = np.zeros(11)
    draws = 20_000
    given = stated(0, 0.3, weight=20.0)
    for _ in range(draws // 4):
        tokens = rng.choice(11, size=4, p=pi)
        drawn = Drawn(given, tuple(LEVELS[k] for k in tokens), tuple(np.log(pi[tokens])))
        levels = feed_supervised([given], [drawn], sums=True).requests[1]
        assert levels.loss == "importance_sampling"
        for k, made in zip(tokens, levels.datums, strict=True):
            assert made.targets[-1] == LEVELS[k] and len(made.tokens) == 3
            assert not made.credit[:-1].any()
            sums[k] += made.credit[-1]
    # d/d logit_j of sum_k credit_k log pi(k), against minus the gradient of the expected cost
    ascent = sums / (draws / 4) - pi * (sums.sum() / (draws / 4))
    expected = -pi * (costs - (pi * costs).sum()) * 20.0 * sum(given.advantages)
    np.testing.assert_allclose(ascent, expected, atol=0.02)
    assert np.abs(expected).max() > 0.05


def test_a_token_that_is_no_level_costs_as_much_as_the_worst() -> None:
    drawn = Drawn(stated(0, 1.0), (LEVELS[10], 7), (-0.1, -3.0))
    levels = feed_supervised([stated(0, 1.0)], [drawn], sums=True).requests[1]
    right, wrong = (made.credit[-1] for made in levels.datums)
    assert right > 0 > wrong


class Output:
    """What of an engine's answer is looked at."""

    def __init__(self, *rows: list[float]) -> None:
        self.loss_fn_outputs = [{"logprobs": type("T", (), {"data": row})} for row in rows]


def test_figures_are_those_of_the_completions() -> None:
    batch = [sample(2, 1.0), sample(3, -1.0)]
    (request,) = feed_gradient(batch, PolicyGradient(clip=0.2), "ppo", sums=True).requests
    new = [[9.0, 9.0, 9.0, -0.5, -0.1], [9.0, 9.0, 9.0, -0.5, -0.5, -0.9]]
    found = figures([(request, Output(*new))], 5.0)
    ratio = np.exp([0.0, 0.4, 0.0, 0.0, -0.4])
    cost = -(1.0 + 1.2) + 1.0 + 1.0 + max(ratio[4], 0.8)
    assert found["loss"] == pytest.approx(cost / 5)
    assert found["entropy"] == pytest.approx(2.5 / 5)
    assert found["clip_share"] == pytest.approx(2 / 5)
    assert figures([(Request("importance_sampling", (), {}), Output())], 5.0) == {}


@pytest.mark.parametrize("sums", [True, False])
def test_figures_of_given_texts_are_those_of_cross_entropy(sums: bool) -> None:
    texts = [Sample((1, 2), (5, 6), (), (1.0, 0.5), 0), Sample((1,), (7,), (), (1.0,), 1)]
    (request,) = feed_supervised(texts, [], sums).requests
    found = figures([(request, Output([9.0, -1.0, -2.0], [-3.0]))], 2.5)
    assert found == pytest.approx({"loss": 5 / 2.5, "entropy": 6 / 3, "clip_share": 0.0})


def test_nothing_is_sent_for_no_samples() -> None:
    assert feed_gradient([], PolicyGradient(), "ppo", True) == Fed((), 0.0, 0)
    assert feed_supervised([], [], True) == Fed((), 0.0, 0)


class Slow:
    """A policy that plays in waves."""

    name, waves, engine = "slow", 2, None


def a_group(name: str, led: tuple[int | None, ...] = (), about: int | None = None) -> Group:
    return Group(Task(name, "?", "1", "f"), None, (), led, about)


def test_the_next_wave_is_played_while_one_is_scored() -> None:
    begun = [threading.Event(), threading.Event()]
    seeds: list[int] = []

    def game(policy: Any, draws: Any, n: int, sampling: Sampling) -> list[Group]:
        begun[len(seeds)].set()
        seeds.append(sampling.seed)
        return [a_group(task.id) for task, _ in draws]

    draws: list[Draw] = [(Task(str(i), "?", "1", "f"), None) for i in range(5)]
    waves = in_waves(game, Slow(), draws, 2, Sampling(seed=7))  # type: ignore[arg-type]
    first, last = next(waves)
    assert [g.task.id for g in first] == ["0", "1"] and not last
    assert begun[1].wait(5), "the second wave is not being played while the first is scored"
    second, last = next(waves)
    assert [g.task.id for g in second] == ["2", "3", "4"] and last
    assert next(waves, None) is None
    assert seeds[0] == 7 != seeds[1], "two waves with the same random numbers"


def test_what_fails_in_scoring_does_not_wait_for_the_wave_that_is_played() -> None:
    hold = threading.Event()
    calls: list[int] = []

    def game(policy: Any, draws: Any, n: int, sampling: Sampling) -> list[Group]:
        calls.append(1)
        if len(calls) > 1:
            hold.wait(30)
        return []

    draws: list[Draw] = [(Task(str(i), "?", "1", "f"), None) for i in range(2)]
    waves = in_waves(game, Slow(), draws, 2, Sampling())  # type: ignore[arg-type]
    next(waves)
    began = time.monotonic()
    waves.close()  # as an error or Ctrl-C does
    took = time.monotonic() - began
    hold.set()
    assert took < 10


def test_waves_are_joined_with_their_references_counted_on() -> None:
    played = Round()
    played.add([a_group("a", led=(1, None)), a_group("b", about=0)], [[], []], [[], []])
    played.add([a_group("c", led=(1, None)), a_group("d", about=0)], [[], []], [[], []])
    assert [g.led for g in played.groups] == [(1, None), (), (3, None), ()]
    assert [g.about for g in played.groups] == [None, 0, None, 2]
    assert len(played.verdicts) == len(played.rewards) == 4


# -- refusals ----------------------------------------------------------------------------------


def recipe(name: str, *changes: str) -> Recipe:
    return load_recipe(name, changes)


@pytest.mark.parametrize(
    ("name", "changes", "word", "way"),
    [
        ("ttrl", (), "KL", "stages.0.kl=0"),
        ("rlsf", (), "DPO", "trl-dpo"),
        ("anchored_average", (), "average", "anchor_options.average=0"),
        ("correctness", ("learner.entropy_floor=0.5",), "entropy", "entropy_floor=0"),
        ("correctness", ("lora.targets=['q_proj']",), "layers", "lora.targets"),
        ("correctness", ("learner.anchor=own_confidence",), "own_confidence", "stages.0.anchor"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_the_way_round(
    name: str, changes: tuple[str, ...], word: str, way: str
) -> None:
    with pytest.raises(ConfigError, match=word) as caught:
        check_remote(recipe(name, *changes))
    assert way in str(caught.value) and "--policy local" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["correctness", "demur", "majority", "rlcr", "objector", "anchored_past"]
)
def test_recipes_run_there_unchanged(name: str) -> None:
    check_remote(recipe(name))


class Stranger(BaseHTTPRequestHandler):
    """A server that is no engine: 404, or pages, or answers of another protocol."""

    kind = "404"

    def do_GET(self) -> None:
        body = b"<html>hello</html>" if self.kind == "page" else b'{"status": "ok"}'
        self.send_response(404 if self.kind == "404" else 200)
        self.send_header("content-type", "text/html" if self.kind == "page" else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = b'{"odd": true}'
        self.send_response({"key": 401, "lacks": 404}.get(self.kind, 422))
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[tuple[type[Stranger], str]]:
    class Here(Stranger):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Here, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_mistakes_are_found_before_any_work(run: Run, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    nowhere = "http://127.0.0.1:9"
    assert "add --base-url" in sentence(run(*TRAIN, *out))
    assert f"no engine can be reached at {nowhere}" in sentence(
        run(*TRAIN, *out, "--base-url", nowhere)
    )
    assert "is as http://" in sentence(run(*TRAIN, *out, "--base-url", "127.0.0.1:8000"))
    local = run("train", "correctness", "--base-url", nowhere, *out)
    assert "--policy tinker" in sentence(local)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["404", "page"])
def test_a_server_that_is_no_engine(
    stranger: tuple[type[Stranger], str], run: Run, tmp_path: Path, kind: str
) -> None:
    handler, url = stranger
    handler.kind = kind
    message = sentence(run(*TRAIN, "--out", tmp_path / "run", "--base-url", url))
    assert "does not speak the Tinker protocol" in message and "--endpoint" in message


def test_another_client_version_names_those_that_work(
    monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "0.30.1")
    message = sentence(run(*TRAIN, "--out", tmp_path / "run", "--base-url", "http://127.0.0.1:9"))
    assert "tinker 0.30.1" in message and "0.24" in message and "SkyRL" in message


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("odd", r"known to work together: tinker 0\.24"),
        ("lacks", r"known to work together: tinker 0\.24"),
        ("key", "TINKER_API_KEY"),
    ],
)
def test_an_engine_of_another_protocol_or_with_a_key(
    stranger: tuple[type[Stranger], str], kind: str, word: str
) -> None:
    pytest.importorskip("tinker", reason="the client is an extra")
    handler, url = stranger
    handler.kind = kind
    with pytest.raises(Exception, match=word) as caught:
        Connection(url)
    assert "\n" not in str(caught.value)


def test_only_two_files_are_taken_out_of_an_archive(tmp_path: Path) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        for name, content in (("../../evil.py", b"x"), ("a/keep.json", b"{}")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("keep.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    whole = held.getvalue()
    (tmp_path / "into").mkdir()
    unpack(io.BytesIO(whole), ["keep.json"], tmp_path / "into")
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == {
        "keep.json": b"{}"
    }
    with pytest.raises(KeyError, match=r"keep\.bin"):
        unpack(io.BytesIO(whole), ["keep.bin"], tmp_path / "into")
    entry = tarfile.TarInfo("keep.json")
    entry.size = LARGEST + 1
    with pytest.raises(ValueError, match=f"keep.json has {LARGEST + 1} bytes"):
        unpack(io.BytesIO(entry.tobuf()), ["keep.json"], tmp_path / "into")
