"""The command ``demur argue`` as a process: the page it serves, the terminal form, mistakes."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import pytest
import torch
from rich.console import Console
from serving import completion, serving
from test_argue_page import words
from tiny import byte_policy, tiny_policy

from demur import cli
from demur.arguing.session import Manner
from demur.arguing.terminal import Terminal
from demur.commands.arguing import has_browser, load

SETTINGS = os.environ | {
    "PYTHONPATH": str(Path(cli.__file__).parents[1]), "OMP_NUM_THREADS": "1", "COLUMNS": "200",
}  # fmt: skip


def test_the_command_serves_until_it_is_stopped(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "demur.cli", "argue", "seed", "--k", "3"]
    with subprocess.Popen(
        command, env=SETTINGS | {"BROWSER": str(browser)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert found is not None, process.stderr.read()
            until = time.monotonic() + 30
            while not opened.exists():
                assert time.monotonic() < until
                time.sleep(0.02)
            assert opened.read_text().strip() == found[0]
            with urllib.request.urlopen(found[0], timeout=30) as page:
                token = re.search(rb'name="token" value="([\w-]+)"', page.read())
            assert token is not None
            fields = {"token": token[1].decode(), "question": "12+30?"}
            with urllib.request.urlopen(found[0], urlencode(fields).encode(), timeout=30) as page:
                assert "of 3" in words(page.read().decode()) and "/talk/" in page.url
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def complaint(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """The one sentence with which the command line refuses."""
    monkeypatch.setattr(sys, "argv", ["demur", "argue", *arguments])
    threads = torch.get_num_threads()
    with pytest.raises(SystemExit) as stop:
        cli.main()
    torch.set_num_threads(threads)
    said = capfd.readouterr()
    assert stop.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert complaint(monkeypatch, capfd, "seed") == (
        f"demur: the page needs {package}: pip install 'demur[argue]', or argue with --terminal\n"
    )


def test_a_port_that_is_taken_and_other_mistakes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = complaint(monkeypatch, capfd, "seed", "--port", port, "--no-open")
    assert f"cannot listen on port {port} (" in said and "name another --port" in said
    for arguments, expected in (
        (("nowhere",), "no model folder at nowhere"),
        (("seed", "--style", "breif"), "did you mean 'brief'?"),
        (("m", "--endpoint", "localhost:1"), "an endpoint is an address"),
        (("m", "--endpoint", "localhost:1", "--terminal"), "an endpoint is an address"),
        (("m", "--endpoint", "http://127.0.0.1:9/v1", "--terminal"), "cannot be reached; is it"),
        (("seed", "--k", "0"), "invalid value for '--k'"),
    ):
        assert expected in complaint(monkeypatch, capfd, *arguments)


@pytest.mark.parametrize(("display", "has"), [("", False), (":1", True)])
def test_a_browser_is_opened_where_there_is_a_display(
    monkeypatch: pytest.MonkeyPatch, display: str, has: bool
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("BROWSER", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", display)
    assert has_browser() is has


# -- the terminal form ----------------------------------------------------------------------------


def test_a_conversation_in_the_terminal() -> None:
    """Mistakes on the way are sentences, and the conversation goes on."""
    lines = (
        "/sure", "/truth", "/shout", "12 + 30", "/rate 2", "/rate 0.4", "43", "/after", "/hush",
        "43", "/peers 43", "/peers 43 x/y", "/peers 43 9/9", "/peers 43 5/6", "/sure", "/truth",
        "/new", "\udcff\x1b[31m[red]x[/red]", "/truth", "/new 7*134", "/rate ?", "/tell", "/beside",
        "938", "/truth", "/help", "/quit", "never read",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "demur.cli", "argue", "seed", "--terminal"], env=SETTINGS,
        input="".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"),
        capture_output=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == b"", done
    said = done.stdout.decode()
    told = [part.strip() for part in re.split(r"^> ", said, flags=re.M)]
    assert [part.partition("\n")[0] for part in told[1:]] == [
        "12+30?", "12+30? I say 43. I am right 0.4.", "I say 43.",
        "Ann says 43. Bob says 43. Cy says 43. Dee says 43. Eli says 43. Fay says 42.",
        "Are you sure?", "\ufffd [31m[red]x[/red]", "7*134?", "7*134? I say 938.",
    ]  # fmt: skip
    assert re.search(r"^42   \(says it is [01]\.\d\d sure\)$", told[1], re.M)
    assert re.search(r"^  42 +█+ +8 of 8$", told[1], re.M)
    for part, best in zip(told[2:6], ("keep 42", "keep 42", "take 43", "take 43"), strict=True):
        answer = part.splitlines()[1].split()[0]
        does = {"42": "it kept 42", "43": "it took 43"} | {best[-2:]: "so did it"}
        assert re.search(rf"^Bayes: {best} \(>?0\.\d\d\); {does[answer]}$", part, re.M), part
    assert "The truth is 42." in told[5] and "turn 1: 42, right" in told[5]
    assert "Nobody knows the truth" in told[6] and "\x1b" not in said
    assert "The truth is 938." in told[8] and "you: 938 (nobody knows how often right)" in told[8]
    assert "never read" not in said
    for expected in (
        "Ask a question first.", "There is no command /shout; /help lists them.",
        "/rate takes a number from 0 to 1, or ?", "/peers takes an answer and how many of up to 6",
        "There are 1 to 6 peers", "/peers ANSWER M/N",
    ):  # fmt: skip
        assert expected in said, (expected, said)
    assert said.count("Ask a question first.") == 2


def test_the_terminal_with_a_model_that_cannot_be_read() -> None:
    out = Console(file=io.StringIO(), width=200)
    prompts: list[str] = []
    lines = ["What is 2+2?", " ", "5", "/truth", "/q"]
    Terminal(byte_policy(), Manner("plain", 2, 4, 0), out).run(lines, prompts.append)
    assert isinstance(out.file, io.StringIO)
    said = out.file.getvalue()
    assert said.count("The reply could not be read: ran into the token limit") == 2
    assert "2 of 2" in said and "no private belief" in said and "Bayes:" not in said
    assert "> I think the answer is 5." in said and "Nobody knows the truth" in said
    assert prompts == ["question", "you", "you", "you", "you"]


def test_how_a_model_is_spoken_to(tmp_path: Path) -> None:
    byte_policy().save(tmp_path / "bytes")
    tiny_policy().save(tmp_path / "tiny")
    spoken = [load(name, "", "cpu")[1] for name in ("seed", str(tmp_path / "tiny"))]
    assert spoken == ["brief", "brief"] and load(str(tmp_path / "bytes"), "", "cpu")[1] == "plain"
    with serving(lambda _: completion("hm")) as server:
        assert load("m", server.url, "cpu")[1] == "plain"
