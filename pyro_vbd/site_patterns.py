"""Settings by pattern of site names: of the patterns that match a site, the first counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

__all__ = ["first_match", "idle"]

V = TypeVar("V")


def first_match(patterns: Mapping[str, V], site: str, rest: V) -> V:
    """The value of the first shell-style pattern (``*``, ``?``, ``[...]``) that matches the name, or else the rest's."""
    return next((value for pattern, value in patterns.items() if fnmatchcase(site, pattern)), rest)


def idle(patterns: Iterable[str], sites: Iterable[str]) -> list[str]:
    """The patterns that match none of the names: misspelt, most likely."""
    names = list(sites)
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
