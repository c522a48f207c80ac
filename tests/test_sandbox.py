"""Programs that try to get out. Each is really run, and what it was after is then looked at."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from contracts import make_group

from demur.anchors import sandbox
from demur.anchors.jail import MODULES
from demur.anchors.sandbox import examples_of, passes, run
from demur.anchors.tool import Tool
from demur.errors import ConfigError
from demur.schema import Task

try:
    sandbox.check()
except ConfigError as error:
    pytest.skip(str(error), allow_module_level=True)


def test_a_program_is_run_on_examples() -> None:
    program = "import math\ndef f(x):\n    return x * 2\nprint('noise')"
    assert run(program, ["f(2)", "f('a')", "math.floor(2.5)"]) == ["4", "'aa'", "2"]
    assert run("def f(x):\n    return 1 / x", ["f(1)", "f(0)", "f(2)"]) == ["1.0", None, None]
    assert run("def f(:", ["f(1)"]) == [None]
    assert run("x = 1", []) == []


def test_a_program_may_import_what_computing_needs() -> None:
    program = f"import {', '.join(MODULES)}\nfrom collections import Counter"
    sums = ["statistics.mean([1, 2])", "Counter('aab')['a']", "re.sub('a', 'b', 'aa')"]
    assert run(program, sums) == ["1.5", "2", "'bb'"]


ESCAPES = {
    "read a file": "x = open('/etc/hostname').read()",
    "read itself": "x = open('/proc/self/environ').read()",
    "write a file": "x = open({target!r}, 'w').write('x')",
    "make a folder": "import os\nx = os.mkdir({target!r})",
    "list a folder": "import os\nx = os.listdir('/')",
    "open a socket": "import socket\nx = socket.socket()",
    "open a socket without the module": "import _socket\nx = _socket.socket()",
    "fork": "import os\nx = os.fork()",
    "start a shell": "import os\nx = os.posix_spawn('/bin/sh', ['sh'], {{}})",
    "start a process": "import subprocess\nx = subprocess.run(['id'])",
    "start a thread": "import _thread\n_thread.start_new_thread(print, ())\nx = 1",
    "kill the parent": "import os\nos.kill(os.getppid(), 9)\nx = 1",
    "load a module from a file": "import http.server\nx = 1",
    "exit": "raise SystemExit(0)",
    "leave at once": "import os\nos._exit(0)",
    "recurse": "def f():\n    return f()\nx = f()",
    "take all memory": "x = len([0] * 10**9)",
    "sleep": "import time\ntime.sleep(60)\nx = 1",
    "print without end": "while True:\n    print('x' * 1000)",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_program_gets_nowhere(tmp_path: Path, name: str) -> None:
    target = tmp_path / "made"
    started = time.monotonic()
    assert run(ESCAPES[name].format(target=str(target)), ["x"]) == [None]
    assert time.monotonic() - started < 10
    assert not target.exists()


def test_a_program_that_runs_on_is_ended() -> None:
    started = time.monotonic()
    assert run("while True:\n    pass", ["1"], seconds=1) == [None]
    assert time.monotonic() - started < 8


def test_the_c_library_gets_nowhere_either(tmp_path: Path) -> None:
    """Code that has ctypes can call what it likes, and the filter answers."""
    target = tmp_path / "made"
    program = (
        "import sys\nlibc = sys.modules['ctypes'].CDLL(None, use_errno=True)\n"
        f"made = libc.open({str(target).encode()!r}, 0o101, 0o600)\n"
        "forked = libc.fork()\nsent = libc.socket(2, 1, 0)\nshell = libc.system(b'true')\n"
        "undone = libc.prctl(22, 0, 0, 0, 0)\n"
    )
    found = run(program, ["made", "forked", "sent", "undone", "shell != 0"])
    assert found == ["-1", "-1", "-1", "-1", "True"]
    assert not target.exists()


def test_nothing_of_ours_is_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hush")
    program = "import os\nkeys = sorted(os.environ)\nhere = os.__file__ is not None"
    found = run(program, ["'SECRET_KEY' in keys", "len(keys) < 3"])
    assert found == ["False", "True"]
    listener = socket.create_server(("127.0.0.1", 0))
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    probe = f"import os\nx = os.read({reader}, 1)"
    assert run(probe, ["x"]) == [None], "open files are not handed on"
    for end in (reader, writer):
        os.close(end)
    listener.close()


def test_what_is_too_long_is_not_run() -> None:
    assert run("x = 1\n" + "#" * 30_000, ["x"]) == [None]
    assert run("x = 1\0", ["x"]) == [None]


def test_a_program_cannot_stop_a_run() -> None:
    spoof = "import sys, os\nsys.stdout.write('{{\"{}\": {}}}\\n')\nsys.stdout.flush()\nos._exit(0)"
    assert run(spoof.format("refused", '\\"x\\"'), ["1"]) == [None]
    assert run(spoof.format("found", "[[1], 2, null]"), ["1"]) == [None]
    assert run(spoof.format("found", "7"), ["1"]) == [None]


CODE = "Write double.\n>>> double(2)\n4\n>>> double('a')\n'aa'\n"


def test_examples_are_those_of_the_question() -> None:
    assert examples_of(CODE) == [("double(2)", "4"), ("double('a')", "'aa'")]
    assert examples_of("no examples") == [] and examples_of(">>> f(1)\n") == []
    assert examples_of(" >>> f(1)\n1\n>>>x") == []
    assert passes("def double(x):\n    return x * 2", CODE) is True
    assert passes("def double(x):\n    return 4", CODE) is False
    assert passes("x = 1", "no examples") is None


def test_the_tool_runs_answers() -> None:
    from dataclasses import replace

    answers = ["double = lambda x: x + x", "double = lambda x: 4", None, "import os; os.abort()"]
    group = replace(make_group(answers, truth=None), task=Task("c", CODE, None, "code"))
    tool = Tool(lambda question: None, use="python")
    assert tool.judge(group) == [1.0, 0.0, 0.0, 0.0]
    assert tool.budget == 3
    again = Tool(lambda question: None, use="python")
    again.restore(tool.state())
    assert again.judge(group) == [1.0, 0.0, 0.0, 0.0] and again.budget == 3
    silent = replace(group, task=Task("d", "Write double.", None, "code"))
    assert tool.judge(silent) == [None] * 4


def test_where_no_filter_can_be_set_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "JAIL", Path(__file__).with_name("no_jail.py"))
    with pytest.raises(ConfigError, match="cannot be run safely here"):
        Tool(lambda question: None, use="python")
