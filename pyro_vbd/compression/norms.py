"""Norms: those of each channel for itself, and those over several, which read all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vbd.compression.channelwise import Channelwise
from pyro_vbd.compression.operation import Operation, register_operation
from pyro_vbd.compression.skeleton import sliced
from pyro_vbd.compression.units import Axis

__all__ = ["GroupNormStep", "LayerNormStep", "NormStep"]


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
