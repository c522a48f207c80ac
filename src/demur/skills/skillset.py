"""Skills as readable files: a name, when to use it, and what to do.

A set of skills is a folder of folders, as agent tools read them:

    NAME/SKILL.md    ---
                     name: NAME
                     description: when it helps
                     ---
                     the skill itself, in Markdown

Models write skills too, so what comes from one is bounded and its name is made harmless before it
becomes a folder's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from demur.errors import ConfigError
from demur.runlog import atomic_write

FILE = "SKILL.md"
NAME_LENGTH, DESCRIPTION_LENGTH, BODY_LENGTH, MOST = 64, 1024, 20_000, 64
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill; ``name`` is lower-case words with hyphens, ``description`` is one line."""

    name: str
    description: str
    body: str

    @property
    def markdown(self) -> str:
        """The contents of its file."""
        front = yaml.safe_dump(
            {"name": self.name, "description": self.description},
            sort_keys=False,
            allow_unicode=True,
            width=10_000,
        )
        return f"---\n{front}---\n\n{self.body}\n"


SkillSet = tuple[Skill, ...]


def make_skill(name: str, description: str, body: str) -> Skill | None:
    """A skill out of anybody's words; ``None`` where nothing is left of its name or body.

    >>> make_skill("../Read the Notes!", "for  notes", " look it up ")
    Skill(name='read-the-notes', description='for notes', body='look it up')
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name)[:NAME_LENGTH].strip("-")
    when = re.sub(r'["<>]', "'", " ".join(_printable(description).split()))
    words = _printable(body).strip()[:BODY_LENGTH].rstrip()
    return (
        Skill(slug, when[:DESCRIPTION_LENGTH].rstrip() or slug, words) if slug and words else None
    )


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def as_set(skills: Sequence[Skill | None]) -> SkillSet:
    """The skills of different names, the last of each, at most ``MOST``."""
    named = {skill.name: skill for skill in skills if skill is not None}
    return tuple(named.values())[:MOST]


def write_skills(skills: SkillSet, folder: Path) -> None:
    """Write a set as a folder of folders; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for skill in skills:
        (folder / skill.name).mkdir(exist_ok=True)
        atomic_write(folder / skill.name / FILE, skill.markdown)


def read_skills(folder: Path) -> SkillSet:
    """Read such a folder; raises ``ConfigError`` with the file that is no skill."""
    return as_set([_read(path) for path in sorted(folder.glob(f"*/{FILE}"))])


def _read(path: Path) -> Skill:
    try:
        _, front, body = path.read_text(encoding="utf-8").split("---\n", 2)
        found = yaml.safe_load(front)
        skill = make_skill(str(found["name"]), str(found["description"]), body)
    except (ValueError, KeyError, TypeError, yaml.YAMLError):
        skill = None
    if skill is None:
        raise ConfigError(
            f"{path} is no skill: begin it with a front matter of name and description between "
            "two lines of ---, and write the skill below"
        )
    return skill


def choose(skills: SkillSet, question: str, room: int) -> tuple[SkillSet, int]:
    """The skills that fit ``room`` characters, and how many were left out.

    Those that share more words with the question come first: it decides which ones a short-sighted
    reader gets to see. Where all fit, all are shown, in their own order.
    """
    if sum(len(s.body) for s in skills) <= room:
        return skills, 0
    asked = set(_WORD.findall(question.casefold()))

    def shared(skill: Skill) -> int:
        return len(asked & set(_WORD.findall(f"{skill.description} {skill.body}".casefold())))

    kept: list[Skill] = []
    for skill in sorted(skills, key=shared, reverse=True):
        if len(skill.body) <= room and (shared(skill) or not kept):
            kept.append(skill)
            room -= len(skill.body)
    return tuple(s for s in skills if s in kept), len(skills) - len(kept)
