"""Steps with several inputs: sums, products, concatenation."""

from __future__ import annotations

import math
import operator
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from pyro_vbd.compression.channelwise import PointwiseStep, apply, has_computed_number
from pyro_vbd.compression.operation import Operation, register_operation
from pyro_vbd.compression.units import Axis

__all__ = ["CatStep", "ElementwiseStep", "ExpandStep", "ProductStep", "ScalarStep", "SumStep"]


@register_operation(operator.truediv, operator.itruediv, operator.pow, torch.div, torch.pow, "div", "div_", "pow")
class ScalarStep(PointwiseStep):
    """Arithmetic with a number, or of a tensor with itself."""


class ElementwiseStep(Operation):
    """Tensors put together number by number. Abstract.

    Units at one index stay or go together: a channel of a residual sum goes only when it is dead on every branch.
    """

    def forward(self) -> Axis | None:
        if has_computed_number(self.node):
            return None
        if len(self.inputs) == 1:
            axis = self.inputs[0].axis
            return axis and Axis(axis.dim, axis.units, apply(self.node, None, axis.constant))
        rank = len(self.shape)
        full: list[Axis] = []
        narrow = 0  # inputs that are the same for all units
        for source in self.inputs:
            axis, missing = source.axis, rank - len(source.shape)
            if axis is not None and len(axis.units) == self.shape[axis.dim + missing]:
                full.append(Axis(axis.dim + missing, axis.units, axis.constant))
            else:
                narrow += 1
        if not full or len({axis.dim for axis in full}) > 1:
            return None
        dim = full[0].dim
        for source in self.inputs:
            own = dim - (rank - len(source.shape))
            is_narrow = own < 0 or source.shape[own] == 1
            if not is_narrow and (source.axis is None or source.axis.dim != own):
                return None  # its numbers belong to the units, but nothing can be taken from it
        for other in full[1:]:
            self.units.tie(full[0].units, other.units)
        return Axis(dim, full[0].units, self.combine([axis.constant for axis in full], narrow))

    @abstractmethod
    def combine(self, constants: list[Tensor], narrow: int) -> Tensor:
        """The constants of the output, of those of the inputs with units and with ``narrow`` other inputs."""

    def backward(self) -> list[Tensor | None]:
        if self.axis is None:
            return [None for _ in self.inputs]
        return [
            self.needed if source.axis is not None and len(source.axis.units) == len(self.needed) else None
            for source in self.inputs
        ]


@register_operation(
    operator.add, operator.iadd, operator.sub, operator.isub, torch.add, torch.sub, "add", "add_", "sub", "sub_"
)
class SumStep(ElementwiseStep):
    """A residual sum, or a difference."""

    def combine(self, constants: list[Tensor], narrow: int) -> Tensor:
        if narrow or len(constants) != 2 or self.node.kwargs:
            return torch.full_like(constants[0], math.nan)
        minus = "sub" in str(getattr(self.node.target, "__name__", self.node.target))
        return constants[0] - constants[1] if minus else constants[0] + constants[1]


@register_operation(operator.mul, operator.imul, torch.mul, "mul", "mul_")
class ProductStep(ElementwiseStep):
    """A product; 0 where a factor is."""

    def combine(self, constants: list[Tensor], narrow: int) -> Tensor:
        product = constants[0] * math.nan if narrow else torch.stack(constants).prod(0)
        return torch.where((torch.stack(constants) == 0).any(0), 0.0, product)


@register_operation("expand_as")
class ExpandStep(ElementwiseStep):
    """The first, as wide as the second, of which only the shape is looked at."""

    def combine(self, constants: list[Tensor], narrow: int) -> Tensor:
        return torch.full_like(constants[0], math.nan) if narrow else constants[0]


@register_operation(torch.cat, torch.concat, torch.concatenate)
class CatStep(Operation):
    """Concatenation, of units one after another, or of places or tokens of the same units."""

    def forward(self) -> Axis | None:
        tensors, given = self._arguments()
        if not isinstance(given, int) or len(self.inputs) != len(tensors):
            return None
        dim = given % len(self.shape)
        dims = {source.axis.dim for source in self.inputs if source.axis is not None}
        if len(dims) != 1:
            return None
        self._along_units = dims == {dim}
        if self._along_units:
            axes = [self._axis_of(source, dim) for source in self.inputs]
            return Axis(dim, torch.cat([a.units for a in axes]), torch.cat([a.constant for a in axes]))
        if any(source.axis is None for source in self.inputs):
            return None
        axes = [source.axis for source in self.inputs if source.axis is not None]
        for other in axes[1:]:
            self.units.tie(axes[0].units, other.units)
        constants = torch.stack([axis.constant for axis in axes])
        agree = (constants == constants[:1]).all(0)
        return Axis(axes[0].dim, axes[0].units, constants[0].where(agree, math.nan))

    def _arguments(self) -> tuple[Any, Any]:
        """The tensors and the dimension, by place or by name: ``axis`` is the latter's other name."""
        args, named = self.node.args, self.node.kwargs
        tensors = args[0] if args else named["tensors"]
        return tensors, args[1] if len(args) > 1 else named.get("dim", named.get("axis", 0))

    def _axis_of(self, source: Operation, dim: int) -> Axis:
        if source.axis is not None:
            return source.axis
        units = self.units.new(source.shape[dim])
        self.units.pin(units)
        return Axis(dim, units, torch.full((len(units),), math.nan, dtype=torch.float64))

    def backward(self) -> list[Tensor | None]:
        if self.axis is None:
            return [None for _ in self.inputs]
        if not self._along_units:
            return [self.needed for _ in self.inputs]
        parts = self.needed.split([source.shape[self.axis.dim] for source in self.inputs])
        return [part if source.axis is not None else None for part, source in zip(parts, self.inputs, strict=True)]
