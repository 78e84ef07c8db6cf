"""Steps that put numbers elsewhere: flatten, view, permute and the like."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from pyro_vbd.compression.operation import Operation, register_operation
from pyro_vbd.compression.units import Axis

__all__ = ["MeanStep", "MovingStep"]


@register_operation(
    nn.Flatten, nn.Unflatten, torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.swapaxes, torch.movedim,
    torch.squeeze, torch.unsqueeze, operator.getitem, "flatten", "unflatten", "view", "reshape", "permute", "transpose",
    "swapaxes", "movedim", "squeeze", "unsqueeze", "expand", "select", "narrow",
)  # fmt: skip
class MovingStep(Operation):
    """A step that moves numbers. Where each unit goes is seen by moving the units' numbers in place of their values."""

    def forward(self) -> Axis | None:
        axis = self.inputs[0].axis if len(self.inputs) == 1 else None
        if axis is None:
            return None
        shape = self.inputs[0].shape
        places = [1] * len(shape)
        places[axis.dim] = -1
        numbers = torch.arange(len(axis.units)).view(places).expand(shape).contiguous()
        moved = self.move(numbers)
        for dim in range(1, moved.dim()):
            lines = moved.movedim(dim, 0).flatten(1)
            if lines.size(1) and bool((lines == lines[:, :1]).all()):
                source = lines[:, 0]
                counts = source.bincount(minlength=len(axis.units))
                # a slice of the units is written into the code as places, which a cut would change
                if bool((counts == counts[0]).all()) and not self._is_fixed(dim, numbers.narrow(axis.dim, 0, 1)):
                    self._source = source
                    return Axis(dim, axis.units[source], axis.constant[source])
        return None

    def move(self, numbers: Tensor) -> Tensor:
        """What the step makes of a tensor of the input's shape."""
        if self.module is not None:
            return self.module(numbers)  # type: ignore[no-any-return]
        source = self.inputs[0].node
        args, kwargs = fx.node.map_arg(
            (self.node.args, self.node.kwargs), lambda node: numbers if node is source else node.meta["value"]
        )
        if self.node.op == "call_method":
            return getattr(numbers, str(self.node.target))(*args[1:], **kwargs)  # type: ignore[no-any-return]
        return self.node.target(*args, **kwargs)  # type: ignore[operator,no-any-return]

    def _is_fixed(self, dim: int, one: Tensor) -> bool:
        """Whether the number of the units or their places are in the code where no edit reaches, so that none can go.

        Args:
            dim: where the units are in the output.
            one: an input with one unit.
        """
        if self.node.target in (operator.getitem, "narrow"):
            try:
                self.move(one)
            except (IndexError, RuntimeError):
                return True
        by_name = self.module is not None or not _SIZES.isdisjoint(self.node.kwargs)
        return by_name and _is_written(*self._sizes(), dim)

    def _sizes(self) -> tuple[Sequence[Any], int]:
        """The sizes that the code gives, and the dimension of the output that the first of them is of."""
        args, named, rank = self.node.args, self.node.kwargs, len(self.inputs[0].shape)
        given: Any = next((named[name] for name in _SIZES if name in named), None)
        if isinstance(self.module, nn.Unflatten):
            return self.module.unflattened_size, int(self.module.dim) % rank
        if self.node.target == "unflatten":
            first: Any = args[1] if len(args) > 1 else named["dim"]
            return args[2] if given is None else given, first % rank  # type: ignore[return-value]
        if self.node.target not in ("view", "reshape", "expand", torch.reshape):
            return (), 0
        if given is None:
            given = args[1] if len(args) == 2 else args[1:]
        return given if isinstance(given, tuple | list) else (given,), 0

    def backward(self) -> list[Tensor | None]:
        if self.axis is None:
            return [None for _ in self.inputs]
        source = self.inputs[0].axis
        assert source is not None
        reads = torch.zeros(len(source.units), dtype=torch.bool)
        reads[self._source[self.needed]] = True
        return [reads]

    def edited_arguments(self, kept: Callable[[Operation], Tensor]) -> tuple[Any, ...] | None:
        if self.axis is None:
            return None
        left, args = int(kept(self).sum()), self.node.args
        sizes, first = self._sizes()
        if left == len(self.axis.units) or not _is_written(sizes, first, self.axis.dim):
            return None
        edited = list(sizes)
        edited[self.axis.dim - first] = left
        if any(arg is sizes for arg in args):
            return tuple(edited if arg is sizes else arg for arg in args)
        return (args[0], *edited)


#: What torch's functions call sizes.
_SIZES = frozenset({"shape", "size", "sizes"})


def _is_written(sizes: Sequence[Any], first: int, dim: int) -> bool:
    """Whether the size of a dimension is among those that the code gives, as a number."""
    return 0 <= dim - first < len(sizes) and isinstance(sizes[dim - first], int) and sizes[dim - first] != -1


@register_operation("mean", torch.mean)
class MeanStep(MovingStep):
    """A mean over places or tokens, not over units: that of a constant is the constant."""

    def forward(self) -> Axis | None:
        axis = self.inputs[0].axis if len(self.inputs) == 1 else None
        args = self.node.args[1] if len(self.node.args) > 1 else self.node.kwargs.get("dim")
        dims = [args] if isinstance(args, int) else args
        if axis is None or not isinstance(dims, list | tuple):
            return None
        rank = len(self.inputs[0].shape)
        if any(not isinstance(dim, int) or dim % rank == axis.dim or dim % rank == 0 for dim in dims):
            return None
        return super().forward()

    def move(self, numbers: Tensor) -> Tensor:
        return super().move(numbers.double()).round().long()
