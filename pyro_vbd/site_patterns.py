"""Settings by pattern of site names: of the patterns that match a site, the first counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeVar

__all__ = ["first_match", "idle", "refuse_idle"]

V = TypeVar("V")


def first_match(patterns: Mapping[str, V], site: str, rest: V) -> V:
    """The value of the first shell-style pattern (``*``, ``?``, ``[...]``) that matches the name, or else the rest's."""
    return next((value for pattern, value in patterns.items() if fnmatchcase(site, pattern)), rest)


def idle(patterns: Iterable[str], sites: Iterable[str]) -> list[str]:
    """The patterns that match none of the names: misspelt, most likely."""
    names = list(sites)
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


def refuse_idle(setting: str, patterns: Iterable[str], sites: Iterable[str]) -> None:
    """Refuse a setting with a pattern that matches none of the sites.

    Quick enough for every step of training: patterns that were in order are not looked at again.

    Raises:
        ValueError: naming the setting, those patterns and the sites.
    """
    _refuse_idle(setting, tuple(patterns), tuple(sites))


@lru_cache
def _refuse_idle(setting: str, patterns: tuple[str, ...], sites: tuple[str, ...]) -> None:
    if lost := idle(patterns, sites):
        raise ValueError(f"{setting} has the patterns {lost}, which match none of the sites {sorted(sites)}: mend them")
