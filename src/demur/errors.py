"""Every error a user can meet, as one tree.

    DemurError
    ├── ConfigError        (also ValueError)    a recipe, key or flag is wrong
    │   └── UnknownName    (also KeyError)      no such part, recipe or key; the near match
    ├── TaskFileError      (also ValueError)    a task file cannot be used; says the line
    ├── ModelFolderError   (also OSError)       a model folder is missing, incomplete or unsafe
    ├── EndpointError      (also OSError)       a server refuses, or cannot be reached
    ├── RunFolderError     (also OSError)       a run folder cannot be made, resumed or written
    └── TrainingError      (also RuntimeError)  training cannot go on (NaN loss, no optimiser)
        └── EngineError                         the engine cannot do it: too long, too large

Each message is one sentence that says what is wrong and what to do. The command line prints it on
stderr and exits with 2; anything outside this tree is a bug and keeps its traceback. To add one,
subclass the nearest node and a standard type, and draw it above.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DemurError(Exception):
    """Base of every error that demur raises on purpose."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return str(self.args[0]) if self.args else ""


class ConfigError(DemurError, ValueError):
    """A recipe, key or flag is wrong."""


class UnknownName(ConfigError, KeyError):
    """No part, recipe or key of that name.

    >>> str(UnknownName("reward", "brierr", ["brier", "format"]))
    "unknown reward 'brierr': did you mean 'brier'? (known: brier, format)"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")


class TaskFileError(DemurError, ValueError):
    """A task or transcript file cannot be used."""


class ModelFolderError(DemurError, OSError):
    """A model folder is missing, incomplete or unsafe."""


class EndpointError(DemurError, OSError):
    """A server cannot be reached, refuses the key, or has no such model."""


class RunFolderError(DemurError, OSError):
    """A run folder cannot be made, resumed or written."""


class TrainingError(DemurError, RuntimeError):
    """Training cannot go on."""


class EngineError(TrainingError):
    """The engine cannot compute what was asked: too long for the model, too large for memory."""
