"""One step of the network as the cut sees it, and the registry of the kinds of steps.

The analysis goes through the steps twice. Forward, each says which units its output is made of and which of them are
constant. Backward, each is told which indices of its output are needed, and says which of its inputs' it reads. A unit
goes where no index of it is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from pyro_vbd.compression.units import Axis, Units

__all__ = ["Barrier", "Layer", "Operation", "find_operation", "register_operation"]


class Operation(ABC):
    """One step. Abstract.

    Args:
        node: the call.
        module: what is called, where it is a module.
        inputs: the steps that its tensor arguments come from.
        units: those of the network.
    """

    #: The units of the output; None where it has none that could go.
    axis: Axis | None = None
    #: Whether there is more to cut of the module than the units of its output: its inputs, or what is inside.
    cuts_more: ClassVar[bool] = False

    def __init__(self, node: fx.Node, module: nn.Module | None, inputs: list[Operation], units: Units) -> None:
        self.node, self.module, self.inputs, self.units = node, module, inputs, units
        #: Which indices of the output are needed, set in the backward pass.
        self.needed = torch.zeros(0, dtype=torch.bool)

    @abstractmethod
    def forward(self) -> Axis | None:
        """The units of the output."""

    @abstractmethod
    def backward(self) -> list[Tensor | None]:
        """For each input, which of its indices this step reads, given ``self.needed``; None for all of them."""

    def replacement(self, kept: Callable[[Operation], Tensor]) -> nn.Module | None:
        """The module for what is left, given which indices of a step's output are; None to leave it as it is.

        Asked for where the step has an axis, or ``cuts_more``.
        """
        return None

    def edited_arguments(self, kept: Callable[[Operation], Tensor]) -> tuple[Any, ...] | None:
        """The call's arguments for what is left, where a size is written into the code; None to leave them."""
        return None

    @property
    def name(self) -> str:
        """What people call it."""
        return str(self.node.target) if self.node.op == "call_module" else self.node.name

    @property
    def shape(self) -> torch.Size:
        """Of the output."""
        shape: torch.Size = self.node.meta["value"].shape
        return shape


class Layer(Operation):
    """A step with units of its own. Abstract."""


class Barrier(Operation):
    """Anything else: it reads all of its inputs, and nothing is known of its output."""

    def forward(self) -> Axis | None:
        return None

    def backward(self) -> list[Tensor | None]:
        return [None for _ in self.inputs]


_OPERATIONS: dict[Any, type[Operation]] = {}


def register_operation(*targets: Any) -> Callable[[type[Operation]], type[Operation]]:
    """Decorator that registers a kind of step for module types, functions, and names of tensor methods."""

    def register(operation: type[Operation]) -> type[Operation]:
        _OPERATIONS.update(dict.fromkeys(targets, operation))
        return operation

    return register


def find_operation(node: fx.Node, module: nn.Module | None) -> type[Operation]:
    """The kind of a step; :class:`Barrier` where none is registered.

    Raises:
        TypeError: for a module with parameters whose type has no entry.
    """
    found = _OPERATIONS.get(type(module) if module is not None else node.target)
    if found is None and module is not None and next(module.parameters(), None) is not None:
        raise TypeError(
            f"module {node.target!r} is of type {type(module).__name__}, which cannot be cut: name it in keep= to leave "
            "it whole, or register an operation for its type"
        )
    return found or Barrier
