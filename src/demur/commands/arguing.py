"""``demur argue``: a person argues with a model, in a browser or in the terminal."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from demur.errors import ConfigError, UnknownName
from demur.flags import Device, Seed, checked_device, use_threads

if TYPE_CHECKING:
    from demur.arguing.session import Manner
    from demur.games.phrases import Style
    from demur.schema import Policy

RETRIES = 2
"""How often a server is asked again: somebody is waiting."""


def argue(
    model: Annotated[
        str,
        typer.Argument(
            help="Hugging Face folder, or seed, the built-in model; with --endpoint its name there."
        ),
    ],
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="The OpenAI-compatible server of the model.")
    ] = "",
    terminal: Annotated[
        bool, typer.Option("--terminal", help="In the terminal, without a page.")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", help="Port on loopback; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser, if there is one.")
    ] = True,
    k: Annotated[
        int, typer.Option("--k", help="Claim-free samples a question.", min=1, max=64)
    ] = 8,
    style: Annotated[
        str,
        typer.Option(
            "--style",
            help="brief: the embedded world's words; plain: with the reply format as a system "
            "message; auto: brief for the seed model and what was trained from it.",
        ),
    ] = "auto",
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", help="Longest reply. Default: 32 brief, 400 plain.", min=1),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    r"""Argue with a model: ask, push back, bring peers; see what it believes and what Bayes says.

    The page is served on this machine only, and keeps nothing once it ends. It needs two packages
    more: [dim]pip install 'demur\[argue]'[/dim]; the terminal form needs none.

    [dim]demur argue seed[/dim]
    [dim]demur argue runs/demur/checkpoints/step-270 --port 8080 --no-open[/dim]
    [dim]demur argue NAME --endpoint http://127.0.0.1:8000/v1[/dim]
    [dim]demur argue seed --terminal[/dim]
    """
    from demur import console
    from demur.arguing.session import Manner
    from demur.games.phrases import Style

    if style not in ("auto", *get_args(Style)):
        raise UnknownName("style", style, ("auto", *get_args(Style)))

    def ready() -> tuple[Policy, Manner]:
        use_threads()
        with console.spinner("loading"):
            policy, speaks = load(model, endpoint, checked_device(device))
        words: Style = speaks if style == "auto" else "brief" if style == "brief" else "plain"
        return policy, Manner(words, k, max_tokens or (32 if words == "brief" else 400), seed)

    if terminal:
        return talk(*ready())
    need_page()
    from demur.arguing.web import listen

    with listen(port) as at:  # a port that is taken shows before the model is loaded
        serve(*ready(), at, open_=open_)


def need_page() -> None:
    """Raise ``ConfigError`` unless what serves the page is installed."""
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"the page needs {package}: pip install 'demur[argue]', or argue with --terminal"
            )


def load(model: str, endpoint: str, device: str) -> tuple[Policy, Style]:
    """The policy, and the style that it speaks: brief if its words are the embedded world's."""
    from demur.engine.options import Engine
    from demur.evaluation import speaks_briefly
    from demur.policies.endpoint import EndpointPolicy
    from demur.policies.folder import model_folder
    from demur.policies.local import LocalPolicy

    if endpoint:
        server = EndpointPolicy(endpoint, model, retries=RETRIES)
        server.check()
        return server, "plain"
    policy = LocalPolicy.from_folder(model_folder(model), model, Engine(device))
    return policy, "brief" if speaks_briefly(policy) else "plain"


def talk(policy: Policy, manner: Manner) -> None:
    """The terminal form, on stdin."""
    from demur import console
    from demur.arguing.terminal import Terminal

    def prompt(wanted: str) -> None:
        if sys.stdin.isatty():
            console.out.print(f"{wanted}> ", end="", style="cyan", highlight=False)

    with suppress(KeyboardInterrupt):  # the usual way to leave
        Terminal(policy, manner, console.out).run(_typed(), prompt)


def _typed() -> Iterator[str]:
    """Lines of stdin as they come; what is no UTF-8 is replaced."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace")


def serve(policy: Policy, manner: Manner, at: socket.socket, *, open_: bool) -> None:
    """The page, until Ctrl-C."""
    from demur.arguing.web import Desk, make_server

    url = f"http://127.0.0.1:{at.getsockname()[1]}/"
    server = make_server(Desk(policy, manner), at)
    typer.echo(f"Argue with {policy.name} at {url} (Ctrl-C ends it)")
    sys.stdout.flush()
    if open_ and has_browser():
        threading.Thread(target=_open, args=(url,), daemon=True).start()
    with suppress(KeyboardInterrupt):  # the usual way to end it
        server.run(sockets=[at])


def has_browser() -> bool:
    """Whether a browser would open in a window of its own, and not take over the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _open(url: str) -> None:
    with suppress(webbrowser.Error, OSError):
        webbrowser.open(url)
