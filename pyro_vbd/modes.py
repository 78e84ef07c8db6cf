"""Training and evaluation mode for a while, every submodule's own mode restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyro.poutine.messenger import unwrap
from torch import nn

__all__ = ["in_mode"]


@contextmanager
def in_mode(module: Any, training: bool) -> Iterator[None]:
    """Put a module and all its submodules into training or evaluation mode inside the context.

    A module whose own ``train`` says otherwise, such as one that keeps a BatchNorm frozen, has its say.

    Args:
        module: a module, also inside handlers of Pyro; anything else (a model that is a function) is left alone.
        training: whether it is training mode.
    """
    module = unwrap(module)
    if not isinstance(module, nn.Module):
        yield
        return
    modes = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for part, was_training in modes.items():
            part.training = was_training
