"""Steps that treat each unit for itself: the units of the output are those of the input."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pyro_vbd.compression.operation import Operation, register_operation
from pyro_vbd.compression.skeleton import sliced
from pyro_vbd.compression.units import Axis
from pyro_vbd.noise.gate import Gate

__all__ = ["Channelwise", "GateStep", "PointwiseStep", "PoolingStep"]


class Channelwise(Operation):
    """A step whose output at an index depends on the input at that index alone. Abstract."""

    module: Any

    @abstractmethod
    def constant(self, axis: Axis) -> Tensor:
        """The constants of the output, given the axis of the input."""

    def forward(self) -> Axis | None:
        axis = self.inputs[0].axis
        if axis is None or len(self.inputs) > 1 or self.shape[axis.dim] != len(axis.units):
            return None
        return Axis(axis.dim, axis.units, self.constant(axis))

    def backward(self) -> list[Tensor | None]:
        source = self.inputs[0].axis
        if self.axis is None or source is None:
            return [None for _ in self.inputs]
        # what this step makes constant by itself does not depend on the input
        made_here = ~self.axis.varies & source.varies
        return [self.needed & ~made_here]


@register_operation(
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink,
    nn.Tanhshrink, nn.LogSigmoid, nn.Threshold,
    F.relu, F.relu6, F.leaky_relu, F.rrelu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.tanh, F.sigmoid, F.softplus,
    F.softsign, F.hardswish, F.hardtanh, F.hardsigmoid, F.logsigmoid,
    torch.relu, torch.sigmoid, torch.tanh, torch.exp, torch.abs, torch.square, torch.neg, torch.clamp,
    "relu", "relu_", "sigmoid", "tanh", "exp", "abs", "square", "neg", "clamp", "contiguous", "clone", "detach", "float",
    operator.neg,
)  # fmt: skip
class PointwiseStep(Channelwise):
    """A function of each number for itself: of a constant it is the function's value."""

    def forward(self) -> Axis | None:
        return None if has_computed_number(self.node) else super().forward()

    def constant(self, axis: Axis) -> Tensor:
        return apply(self.node, self.module, axis.constant)


def has_computed_number(node: fx.Node) -> bool:
    """Whether an argument is a number that the code computes, from the batch's size perhaps."""
    return any(not isinstance(arg.meta["value"], Tensor) for arg in node.all_input_nodes)


def apply(node: fx.Node, module: Any, constant: Tensor) -> Tensor:
    """The values of an elementwise step of one tensor, perhaps in several places, at constants; NaN stays NaN."""
    value = constant.nan_to_num()
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: value)
    if node.op == "call_module":
        found = module(*args, **kwargs)
    elif node.op == "call_method":
        found = getattr(value, str(node.target))(*args[1:], **kwargs)
    else:
        found = node.target(*args, **kwargs)  # type: ignore[operator]
    return torch.where(constant.isnan(), torch.nan, found.to(constant))


@register_operation(
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, F.dropout, F.dropout1d,
    F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
)  # fmt: skip
class DropoutStep(Channelwise):
    """Dropout, which does nothing in evaluation mode; a call that drops in every mode leaves nothing constant."""

    def constant(self, axis: Axis) -> Tensor:
        args = self.node.args
        on = self.module is None and (args[2] if len(args) > 2 else self.node.kwargs.get("training", True))
        return torch.full_like(axis.constant, torch.nan) if on else axis.constant


@register_operation(
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate,
)  # fmt: skip
class PoolingStep(Channelwise):
    """Pooling or resizing of places: a constant stays what it is, unless a mean counts the zeros of padding too."""

    def forward(self) -> Axis | None:
        axis = self.inputs[0].axis
        return super().forward() if axis is not None and axis.dim == 1 and len(self.shape) > 2 else None

    def constant(self, axis: Axis) -> Tensor:
        mean = isinstance(self.module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d) or self.node.target in _MEANS
        if not mean or (self._is_unpadded() and self._option("divisor_override", 6) is None):
            return axis.constant
        return axis.constant.where(axis.constant == 0, torch.nan)

    def _is_unpadded(self) -> bool:
        padding = self._option("padding", 3) or 0
        return not any(padding) if isinstance(padding, tuple | list) else int(padding) == 0

    def _option(self, name: str, position: int) -> Any:
        args = self.node.args
        if self.module is not None:
            return getattr(self.module, name, None)
        return args[position] if len(args) > position else self.node.kwargs.get(name)


_MEANS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


@register_operation(nn.PReLU)
class PReLUStep(Channelwise):
    """``nn.PReLU``, with one slope for all or one for each unit."""

    def forward(self) -> Axis | None:
        axis = super().forward()
        return axis if self.module.num_parameters == 1 or (axis is not None and axis.dim == 1) else None

    def constant(self, axis: Axis) -> Tensor:
        return torch.where(axis.constant < 0, self.module.weight.detach().double(), 1.0) * axis.constant

    def replacement(self, kept: Callable[[Operation], Tensor]) -> nn.Module | None:
        return sliced(self.module, kept(self), "num_parameters") if self.module.num_parameters > 1 else None


@register_operation(Gate)
class GateStep(Channelwise):
    """A gate, :math:`x w`; closed where w = 0."""

    def forward(self) -> Axis | None:
        axis = self.inputs[0].axis
        return super().forward() if axis is not None and axis.dim == self.module.dim % len(self.shape) else None

    def constant(self, axis: Axis) -> Tensor:
        weight = self.module.weight.detach().double()
        return (axis.constant * weight).where(weight != 0, 0.0)

    def replacement(self, kept: Callable[[Operation], Tensor]) -> nn.Module | None:
        weight = self.module.weight.detach().cpu()
        if bool((weight[self.needed] == 1).all()):  # what it does to the others nobody reads
            return nn.Identity()
        return sliced(self.module, kept(self), "size")
