"""Which parameters are frozen, carried over to a module that takes another's place."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

__all__ = ["frozen_as"]

M = TypeVar("M", bound=nn.Module)


def frozen_as(before: nn.Module, new: M) -> M:
    """A new module, frozen where the one before is, by the parameters' names.

    A parameter of another name (a bias where there was none) is frozen if all of those before are.
    """
    trained = {name: p.requires_grad for name, p in before.named_parameters()}
    for name, p in new.named_parameters():
        p.requires_grad_(trained.get(name, any(trained.values())))
    return new
