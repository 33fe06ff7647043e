"""`requirements.lock` pins all that pyproject.toml asks for, with hashes, and names no index and no host."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")


def test_every_line_is_a_pin_or_a_hash() -> None:
    pins = re.split(r"\n(?=\S)", LOCK.strip())
    line = re.compile(
        r"[a-z0-9][a-z0-9._-]*(\[[a-z,-]+\])?==[^\s:/]+( ; [^:/]+)?( \\\n +--hash=sha256:[0-9a-f]{64})+"
    )
    assert [pin for pin in pins if not line.fullmatch(pin)] == []
    assert len(pins) > 100


def test_the_lock_answers_pyproject() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)(?:\[.*?\])?==(\S+)", LOCK, flags=re.MULTILINE):
        locked.setdefault(canonicalize_name(name), set()).add(version)
    for wanted in map(Requirement, project["project"]["dependencies"] + project["dependency-groups"]["dev"]):
        versions = locked.get(canonicalize_name(wanted.name), set())
        assert versions, f"{wanted} is not in requirements.lock: make lock"
        assert all(version in wanted.specifier for version in versions), (
            f"{wanted}, locked {versions}: make lock"
        )
