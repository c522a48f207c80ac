"""A policy behind a server, against a real one on loopback that also fails in every usual way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from contracts import make_group

from demur.anchors import judge_round
from demur.anchors.judge import Judge
from demur.config import check_recipe, load_recipe
from demur.errors import ConfigError, EndpointError, RunFolderError
from demur.games.rounds import read
from demur.meters import batch_stats
from demur.policies import endpoint
from demur.policies.endpoint import KEY, EndpointPolicy, LostAnswers
from demur.policies.responses import Responses
from demur.reply import render
from demur.schema import Message, Reward, Sampling, Unparsed
from demur.supplies import check_judges

SAMPLING = Sampling(0.7, 16, 5)
DIALOGUES = [(Message("system", "be brief"), Message("user", f"{i}+1?")) for i in range(3)]


class Server(ThreadingHTTPServer):
    """Answers a+1, after it has failed in the ways of ``faults``, one a request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: list[str] = []
        self.nonsense = False
        self.most, self.now, self.lock = 0, 0, threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.keys.append(self.headers.get("Authorization"))
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
            fault = self.server.faults.pop(0) if self.server.faults else ""
        time.sleep(0.02)
        with self.server.lock:
            self.server.now -= 1
        if fault == "cut":
            self.connection.close()
        elif fault == "slow":
            time.sleep(4.0)
        elif fault == "text":
            self.send(200, b"<html>hello</html>", "text/html")
        elif fault == "broken":
            self.send(200, b'{"choices": [', "application/json")
        elif fault == "empty":
            self.send(200, json.dumps({"id": "x", "object": "chat.completion", "created": 0,
                                       "model": "m", "choices": []}).encode())  # fmt: skip
        elif fault:
            self.send(int(fault), b'{"error": {"message": "key sk-hush is wrong"}}')
        else:
            asked = body["messages"][-1]["content"]
            told = "yes" if "Answer: 4\n" in asked else "no" if "Answer:" in asked else asked[0]
            told = "perhaps" if self.server.nonsense else told
            message = {"role": "assistant", "content": render(told, 0.9)}
            stop = "length" if body["max_tokens"] == 1 else "stop"
            self.send(200, json.dumps({
                "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": stop}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            }).encode())  # fmt: skip

    def send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def test_it_answers_in_order_and_several_at_a_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sk-hush")
    policy = EndpointPolicy(server.url, "small", concurrency=3)
    said = policy.reply(DIALOGUES, 4, SAMPLING)
    assert [[c.text for c in row] for row in said] == [[render(str(i), 0.9)] * 4 for i in range(3)]
    assert all(c.stop == "stop" and c.token_ids == () for row in said for c in row)
    assert 1 < server.most <= 3
    assert len({r["seed"] for r in server.requests}) == 12, "each completion has its own seed"
    first = server.requests[0]
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("small", 0.7, 16)
    assert first["messages"][0] == {"role": "system", "content": "be brief"}
    assert set(server.keys) == {"Bearer sk-hush"} and "hush" not in repr(vars(policy).keys())
    [[cut]] = policy.reply(DIALOGUES[:1], 1, Sampling(0.0, 1, 0))
    assert cut.stop == "length"


@pytest.mark.parametrize("faults", [["429", "500", "503"], ["cut", "cut"], ["slow", "429"]])
def test_what_may_pass_is_asked_again(server: Server, faults: list[str]) -> None:
    server.faults = list(faults)
    policy = EndpointPolicy(server.url, "small", concurrency=1, timeout=2.0)
    [[said]] = policy.reply(DIALOGUES[:1], 1, SAMPLING)
    assert said.text == render("0", 0.9)
    assert len(server.requests) == len(faults) + 1


@pytest.mark.parametrize("faults", [["broken", "text", "empty"], ["broken", "429", "cut"]])
def test_a_broken_body_is_asked_for_again(
    server: Server, faults: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PAUSE", 0.01)
    server.faults = list(faults)
    [[said]] = EndpointPolicy(server.url, "small").reply(DIALOGUES[:1], 1, SAMPLING)
    assert said.text == render("0", 0.9) and len(server.requests) == len(faults) + 1


def test_nothing_is_asked_twice_where_answers_are_kept(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "kept" / "responses.jsonl"

    def policy() -> EndpointPolicy:
        return EndpointPolicy(server.url, "small", responses=Responses(file))

    first = policy()
    said = first.reply(DIALOGUES, 2, SAMPLING)
    assert len(server.requests) == 6 and first.usage.asked == 6 and first.usage.kept == 0
    assert first.reply(DIALOGUES, 2, SAMPLING) == said
    with file.open("a") as torn:
        torn.write('{"request": "ab", "te')
    again = policy()
    assert again.reply(DIALOGUES, 2, SAMPLING) == said
    assert policy().reply(DIALOGUES, 2, SAMPLING) == said and len(server.requests) == 6
    assert again.usage.asked == 0 and again.usage.kept == 6
    assert (again.usage.prompt_tokens, again.usage.completion_tokens) == (42, 18)
    policy().reply(DIALOGUES[:1], 1, Sampling(0.7, 17, 5))
    policy().reply(DIALOGUES[:1], 1, Sampling(0.7, 16, 6 + 2**20))
    assert len(server.requests) == 8, "another length or seed is another request"
    EndpointPolicy(server.url, "large", responses=Responses(file)).reply(DIALOGUES, 2, SAMPLING)
    assert len(server.requests) == 14, "so is another model"
    assert "hush" not in file.read_text()


def test_kept_answers_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "responses.jsonl"
    file.write_text('{"request": "a", "text": "x", "stop": "stop"}\n[1]\n')
    with pytest.raises(RunFolderError, match=r"responses\.jsonl, line 2 is no answer"):
        Responses(file)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("401", f"refused the key; set {KEY}"),
        ("403", "refused the key"),
        ("404", "has no model 'small' or no chat completions"),
        ("429", "asked too often"),
        ("500", "answered with status 500"),
        ("400", "answered with status 400"),
        ("text", "no chat completion"),
        ("broken", "no chat completion"),
        ("empty", "no chat completion"),
        ("slow", "did not answer in time"),
    ],
)
def test_what_will_not_pass_is_one_sentence(server: Server, fault: str, said: str) -> None:
    server.faults = [fault] * 4
    policy = EndpointPolicy(server.url, "small", timeout=0.3 if fault == "slow" else 20, retries=1)
    with pytest.raises(EndpointError, match=said) as caught:
        policy.reply(DIALOGUES[:1], 1, SAMPLING)
    assert "hush" not in str(caught.value) and caught.value.__cause__ is None
    assert server.url in str(caught.value)


def test_answers_that_never_come_are_lost_and_the_rest_is_used(server: Server) -> None:
    server.faults = ["slow", "slow"]
    policy = EndpointPolicy(server.url, "small", concurrency=1, timeout=0.5, retries=1)
    with pytest.warns(LostAnswers, match="did not give 1 of 3 answers in time"):
        said = policy.reply(DIALOGUES, 1, SAMPLING)
    assert [c.stop for [c] in said] == ["lost", "stop", "stop"] and policy.lost == 1
    assert read(said[0][0]) == Unparsed("the server did not answer in time")


def test_a_judge_that_is_late_or_talks_nonsense_gives_no_verdict(server: Server) -> None:
    def load(model: str, url: str) -> EndpointPolicy:
        return EndpointPolicy(url, model, concurrency=1, timeout=0.5, retries=0)

    judge = Judge(load, lambda *_: [], model="wise", endpoint=server.url, samples=1)
    groups = [make_group(["4", "5"], id="a"), make_group(["perhaps"], id="b")]
    server.faults = ["slow"]
    with pytest.warns(LostAnswers):
        late = judge_round(judge, groups)
    assert late == [[None, pytest.approx(0.1)], [pytest.approx(0.1)]]
    assert judge.budget == 3
    server.nonsense = True
    again = Judge(load, lambda *_: [], model="wise", endpoint=server.url, samples=1)
    verdicts = judge_round(again, groups)
    assert verdicts == [[None, None], [None]]
    stats = batch_stats(groups, verdicts, [[Reward({}, {})] * len(v) for v in verdicts])
    assert stats["judged"] == 0.0


def test_nobody_there() -> None:
    policy = EndpointPolicy("http://127.0.0.1:9/v1", "small", retries=0)
    with pytest.raises(EndpointError, match="cannot be reached; is it running"):
        policy.reply(DIALOGUES[:1], 1, SAMPLING)
    with pytest.raises(ConfigError, match="an endpoint is an address"):
        EndpointPolicy("localhost:8000", "small")


def test_what_a_server_cannot_do_is_refused(server: Server) -> None:
    policy = EndpointPolicy(server.url, "small")
    for sampling in (Sampling(opening="<answer>"), Sampling(branch=True)):
        with pytest.raises(ConfigError, match="no say over single tokens"):
            policy.reply(DIALOGUES, 1, sampling)
    own = (*DIALOGUES[0], Message("assistant", "2<post_completion>"))
    with pytest.raises(ConfigError, match="cannot go on from its own words"):
        policy.reply([own], 1, SAMPLING)
    assert server.requests == []


def test_a_judge_behind_a_server(server: Server) -> None:
    def load(model: str, url: str) -> EndpointPolicy:
        return EndpointPolicy(url, model)

    judge = Judge(load, lambda *_: [], model="wise", endpoint=server.url, samples=2)
    groups = [make_group(["4", "5", None], id=i) for i in "ab"]
    assert judge_round(judge, groups) == [[0.9, pytest.approx(0.1), 0.0]] * 2
    assert judge.budget == len(server.requests) == 8
    assert {r["model"] for r in server.requests} == {"wise"}


def test_a_recipe_may_name_a_server_that_is_there(server: Server) -> None:
    table = load_recipe("anchored_judge").model_dump(exclude_none=True)
    options = table["stages"][0]["anchor_options"] = {"endpoint": server.url, "model": "wise"}
    check_judges(check_recipe(table))  # a server without a list of models is taken at its word
    assert server.requests == []
    options["endpoint"] = "http://127.0.0.1:9/v1"
    with pytest.raises(EndpointError, match="cannot be reached; is it running"):
        check_judges(check_recipe(table))


def test_without_a_key_a_stand_in_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    endpoint.EndpointPolicy(server.url, "small").reply(DIALOGUES[:1], 1, SAMPLING)
    assert server.keys == ["Bearer none"]
