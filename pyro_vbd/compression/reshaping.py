"""Steps that put numbers elsewhere: flatten, view, permute and the like."""

from __future__ import annotations

import operator
from collections.abc import Callable
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
        moved = self.move(torch.arange(len(axis.units)).view(places).expand(shape).contiguous())
        for dim in range(1, moved.dim()):
            lines = moved.movedim(dim, 0).flatten(1)
            if lines.size(1) and bool((lines == lines[:, :1]).all()):
                source = lines[:, 0]
                counts = source.bincount(minlength=len(axis.units))
                # a slice of the units is written into the code as places, which a cut would change
                if bool((counts == counts[0]).all()):
                    self._source = source
                    return Axis(dim, axis.units[source], axis.constant[source])
        return None

    def move(self, numbers: Tensor) -> Tensor:
        """What the step makes of a tensor of the input's shape."""
        args, kwargs = fx.node.map_arg((self.node.args, self.node.kwargs), lambda n: n.meta["value"])
        if self.module is not None:
            return self.module(numbers)  # type: ignore[no-any-return]
        if self.node.op == "call_method":
            return getattr(numbers, str(self.node.target))(*args[1:], **kwargs)  # type: ignore[no-any-return]
        return self.node.target(numbers, *args[1:], **kwargs)  # type: ignore[operator,no-any-return]

    def backward(self) -> list[Tensor | None]:
        if self.axis is None:
            return [None for _ in self.inputs]
        source = self.inputs[0].axis
        assert source is not None
        reads = torch.zeros(len(source.units), dtype=torch.bool)
        reads[self._source[self.needed]] = True
        return [reads]

    def edited_arguments(self, kept: Callable[[Operation], Tensor]) -> tuple[Any, ...] | None:
        if self.axis is None or self.node.target not in ("view", "reshape", "expand", torch.reshape):
            return None
        left, args = int(kept(self).sum()), list(self.node.args)
        if left == len(self.axis.units):
            return None
        if len(args) > 1 and isinstance(args[1], tuple | list):
            written = list(args[1])
            args[1] = _with_size(written, self.axis.dim, left)
        else:
            args[1:] = _with_size(args[1:], self.axis.dim, left)
        return tuple(args) if tuple(args) != tuple(self.node.args) else None


def _with_size(written: list[Any], dim: int, size: int) -> list[Any]:
    if dim < len(written) and isinstance(written[dim], int) and written[dim] != -1:
        written[dim] = size
    return written


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
