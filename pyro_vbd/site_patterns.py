"""Settings by pattern of site names: of the patterns that match a site, the first counts."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

__all__ = ["first_match"]

V = TypeVar("V")


def first_match(patterns: Mapping[str, V], site: str, rest: V) -> V:
    """The value of the first shell-style pattern (``*``, ``?``, ``[...]``) that matches the name, or else the rest's."""
    return next((value for pattern, value in patterns.items() if fnmatchcase(site, pattern)), rest)
