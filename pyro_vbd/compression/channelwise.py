"""Steps that treat each unit for itself, and norms: the units of the output are those of the input."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pyro_vbd.compression.operation import Operation, register_operation
from pyro_vbd.compression.skeleton import build, sizes
from pyro_vbd.compression.units import Axis
from pyro_vbd.noise.gate import Gate

__all__ = ["Channelwise", "GateStep", "GroupNormStep", "LayerNormStep", "NormStep", "PointwiseStep", "PoolingStep"]


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
    """Dropout, which is nothing in evaluation mode; written without regard to the mode it leaves nothing constant."""

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
    """A maximum or mean over places, or between them: of a constant it is that, unless a mean counts other zeros."""

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


@register_operation(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
class NormStep(Channelwise):
    r"""A norm of each channel for itself, :math:`y = (x - m)/\sqrt{v + \epsilon} \cdot w + b` in evaluation mode.

    m and v are the running ones, or (instance norm) those of the places of a datum, of which a constant has m = x. A
    channel whose weight w is 0 is the constant b.
    """

    def forward(self) -> Axis | None:
        axis = self.inputs[0].axis
        fits = axis is not None and axis.dim == 1 and (self._is_running() or isinstance(self.module, _INSTANCE_NORMS))
        return super().forward() if fits else None

    def _is_running(self) -> bool:
        return self.module.running_mean is not None

    def constant(self, axis: Axis) -> Tensor:
        weight, bias = (None if p is None else p.detach().double() for p in (self.module.weight, self.module.bias))
        if self._is_running():
            deviation = (self.module.running_var.double() + self.module.eps).sqrt()
            value = (axis.constant - self.module.running_mean.double()) / deviation
        else:
            value = axis.constant * 0.0
        if weight is not None:
            value = (value * weight).where(weight != 0, 0.0)
        return value if bias is None else value + bias

    def replacement(self, kept: Callable[[Operation], Tensor]) -> nn.Module | None:
        return sliced(self.module, kept(self), "num_features")


_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@register_operation(nn.GroupNorm)
class GroupNormStep(Operation):
    """``nn.GroupNorm``: the channels of a group can only go together, for each counts in the group's mean and variance."""

    module: nn.GroupNorm

    def forward(self) -> Axis | None:
        axis = self.inputs[0].axis
        if axis is None or axis.dim != 1:
            return None
        for members in axis.units.view(self.module.num_groups, -1):
            self.units.tie(members[1:], members[:1].expand(len(members) - 1))
        return Axis(1, axis.units, norm_constants(self.module, axis))

    def backward(self) -> list[Tensor | None]:
        if self.axis is None:
            return [None]
        groups = self.needed.view(self.module.num_groups, -1)
        return [groups.any(1, keepdim=True).expand_as(groups).flatten()]

    def replacement(self, kept: Callable[[Operation], Tensor]) -> nn.Module | None:
        channels = kept(self)
        groups = int(channels.view(self.module.num_groups, -1).any(1).sum())
        return sliced(self.module, channels, "num_channels", num_groups=groups)


@register_operation(nn.LayerNorm, nn.RMSNorm)
class LayerNormStep(Operation):
    """A norm over the units: it reads all. Where its weight is 0 the output is the constant bias."""

    module: Any

    def forward(self) -> Axis | None:
        axis = self.inputs[0].axis
        if axis is None or axis.dim != len(self.shape) - 1 or len(self.module.normalized_shape) != 1:
            return None
        return Axis(axis.dim, axis.units, norm_constants(self.module, axis))

    def backward(self) -> list[Tensor | None]:
        return [None]


def norm_constants(module: Any, axis: Axis) -> Tensor:
    """The output of a norm over several units: constant where the weight is 0."""
    constant = torch.full_like(axis.constant, torch.nan)
    if module.weight is None:
        return constant
    bias = getattr(module, "bias", None)
    value = torch.zeros_like(constant) if bias is None else bias.detach().double()
    return torch.where(module.weight.detach() == 0, value, constant)


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


@torch.no_grad()
def sliced(module: nn.Module, channels: Tensor, argument: str, **others: Any) -> nn.Module:
    """The module for some of its channels: parameters and buffers of that length are cut to them."""
    reference = next((value for value in module.state_dict().values()), torch.empty(0))
    channels = channels.to(reference.device)
    new = build({**sizes(module), argument: int(channels.sum()), **others})
    floating = next((v for v in module.state_dict().values() if v.is_floating_point()), torch.empty(0))
    new.to(device=floating.device, dtype=floating.dtype)
    new.load_state_dict({
        name: value[channels] if value.dim() == 1 and len(value) == len(channels) else value
        for name, value in module.state_dict().items()
    })  # fmt: skip
    return new.train(module.training)
