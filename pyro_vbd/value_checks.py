"""Checks of the values of data: made at once in an ordinary run, and before the graph in a compiled one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from pyro.infer.util import is_validation_enabled
from torch import Tensor

__all__ = ["ValueCheck", "check_values", "recorded_checks"]

#: A function of one tensor that raises where its values are wrong, and that tensor.
ValueCheck = tuple[Callable[[Tensor], None], Tensor]

_recorder: ContextVar[list[ValueCheck] | None] = ContextVar("recorder", default=None)


def check_values(check: Callable[..., None], value: Tensor, **settings: Any) -> None:
    """Call ``check(value, **settings)`` while Pyro's validation is on, or note it down for later.

    A check that looks at values cannot be part of a traced graph. It must not depend on anything but its arguments.
    """
    checks = _recorder.get()
    if checks is not None:
        checks.append((partial(check, **settings), value))
    elif is_validation_enabled():
        check(value, **settings)


@contextmanager
def recorded_checks() -> Iterator[list[ValueCheck]]:
    """Inside the context no check is made; each is put into the list that it gives."""
    checks: list[ValueCheck] = []
    token = _recorder.set(checks)
    try:
        yield checks
    finally:
        _recorder.reset(token)
