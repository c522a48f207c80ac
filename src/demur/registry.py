"""Parts by name: what a recipe may set of one, and a sentence for what it may not.

Anchors, games and rewards are each a dict of constructors. A constructor's parameters are the
part's options, apart from those that the run supplies.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from demur.errors import UnknownName

Registry = Mapping[str, Callable[..., Any]]


def parameters(kind: str, registry: Registry, name: str) -> list[str]:
    """What the constructor of a part takes; raises ``UnknownName`` for a part that there is not."""
    if name not in registry:
        raise UnknownName(kind, name, registry)
    return list(inspect.signature(registry[name]).parameters)


def check_options(
    kind: str, registry: Registry, name: str, options: Iterable[str], supplied: Collection[str]
) -> None:
    """Raise ``UnknownName`` if the part, or one of its options, doesn't exist."""
    known = [p for p in parameters(kind, registry, name) if p not in supplied]
    for option in options:
        if option not in known:
            raise UnknownName(f"option of {kind} {name!r}", option, known)


def make(
    kind: str,
    registry: Registry,
    name: str,
    options: Mapping[str, object],
    supplied: Mapping[str, object],
) -> Any:
    """Make a part from its options, with as much as it takes of what the run supplies."""
    check_options(kind, registry, name, options, supplied)
    taken = parameters(kind, registry, name)
    return registry[name](**{k: v for k, v in supplied.items() if k in taken}, **options)
