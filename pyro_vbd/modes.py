"""Training and evaluation mode for a while, every submodule's own mode restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["in_mode"]


@contextmanager
def in_mode(module: Any, training: bool) -> Iterator[None]:
    """Put a module and all its submodules into training or evaluation mode inside the context.

    Args:
        module: a module; anything else (a model that is a function) is left alone.
        training: whether it is training mode.
    """
    modes = {part: part.training for part in module.modules()} if isinstance(module, nn.Module) else {}
    for part in modes:
        part.training = training
    try:
        yield
    finally:
        for part, was_training in modes.items():
            part.training = was_training
