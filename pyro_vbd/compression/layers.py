"""Steps with units of their own: linear layers, convolutions, embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vbd.compression.operation import Layer, Operation, register_operation
from pyro_vbd.compression.select import Select
from pyro_vbd.compression.skeleton import build, sizes
from pyro_vbd.compression.units import Axis

__all__ = ["ConvolutionStep", "EmbeddingStep", "LinearStep", "MatrixLayer", "TransposedStep"]


class MatrixLayer(Layer):
    r"""A layer whose outputs are sums of weights times inputs, :math:`y_o = b_o + \sum_i W_{oi} x_i`. Abstract.

    Weights are seen as ``(groups, outputs of a group, inputs of a group, places)``. Where an input is a
    constant c, its part :math:`\sum W_{oi} c` goes into the bias, and the column becomes 0.
    """

    cuts_more = True
    module: Any
    #: Dimension of the input and of the output along which the units stand.
    dim: int

    @property
    def groups(self) -> int:
        return 1

    def matrix(self) -> Tensor:
        """The weights in the common form."""
        raise NotImplementedError

    def write(self, module: Any, matrix: Tensor) -> None:
        """Set the weights of a module from the common form."""
        raise NotImplementedError

    def folds(self, constant: Tensor) -> Tensor:
        """Which constant inputs can be folded into the bias."""
        return torch.ones_like(constant, dtype=torch.bool)

    def forward(self) -> Axis | None:
        weight = self.matrix()
        groups, rows, columns = weight.shape[:3]
        source = self.inputs[0]
        fits = source.axis is not None and source.axis.dim == self.dim % len(source.shape)
        self._source = source.axis if fits else None
        constant = torch.full((groups * columns,), torch.nan, dtype=torch.float64, device=weight.device)
        if self._source is not None:
            constant = self._source.constant.to(weight.device)
        folded = ~constant.isnan() & self.folds(constant)
        bias = torch.zeros(groups * rows).to(constant) if self.module.bias is None else self.module.bias.detach().double()
        self.bias = bias + _parts(weight, constant.where(folded, 0.0))
        self.weight = weight * (~folded).to(weight).view(groups, 1, columns, 1) if folded.any() else weight
        constant_row = (self.weight == 0).all(3).all(2).flatten()
        axis = Axis(self.dim % len(self.shape), self.units.new(groups * rows), self.bias.where(constant_row, torch.nan))
        if groups > 1:
            self._tie_groups(axis)
        return axis

    def _tie_groups(self, axis: Axis) -> None:
        outputs = axis.units.view(self.groups, -1)
        parts = [outputs]
        if self._source is not None:
            parts.append(self._source.units.view(self.groups, -1))
        for members in torch.cat(parts, 1):
            self.units.tie(members[1:], members[:1].expand(len(members) - 1))

    def backward(self) -> list[Tensor | None]:
        groups, rows = self.weight.shape[:2]
        needed = self.needed.to(self.weight.device)
        if groups > 1 and self._source is None:  # the inputs cannot go, nor then a group
            self.needed = torch.ones_like(self.needed)
        if not needed.all():
            self.weight = self.weight * needed.view(groups, rows, 1, 1)
        self.reads = (self.weight != 0).any(3).any(1).flatten()
        return [self.reads if self._source is not None else None]

    def replacement(self, kept: Callable[[Operation], Tensor]) -> nn.Module | None:
        weight, bias, groups = self.weight, self.bias, self.groups
        rows = kept(self).to(weight.device)
        provided = kept(self.inputs[0]) if self._source is not None else torch.ones_like(self.reads)
        provided = provided.to(weight.device)
        if groups > 1:
            alive = rows.view(groups, -1).any(1)
            weight, groups = weight[alive], int(alive.sum())
            reads = provided
        else:
            reads = self.reads.clone()
            if not reads.any():  # nothing is read of a layer that is constant: one column of zeros
                reads[int(provided.nonzero()[0])] = True
            weight = weight[:, rows][:, :, reads]
        new = self._sized(int(reads.sum()), int(rows.sum()), groups, bool((bias[rows] != 0).any()))
        new.to(device=self.module.weight.device, dtype=self.module.weight.dtype)
        with torch.no_grad():
            self.write(new, weight)
            if new.bias is not None:
                new.bias.copy_(bias[rows])
        new.train(self.module.training)
        if bool((reads == provided).all()):
            return new
        select = Select(reads[provided].nonzero().flatten(), self.dim).to(weight.device)
        return nn.Sequential(select, new).train(self.module.training)

    def _sized(self, inputs: int, outputs: int, groups: int, has_bias: bool) -> Any:
        names = {"in_features": inputs, "out_features": outputs, "in_channels": inputs, "out_channels": outputs}
        found = sizes(self.module)
        found.update({name: value for name, value in names.items() if name in found})
        if "groups" in found:
            found["groups"] = groups
        found["bias"] = found["bias"] or has_bias
        return build(found, self.module)


def _parts(weight: Tensor, values: Tensor) -> Tensor:
    """What constant inputs add to each output: of shape ``(groups * outputs,)``, in float64."""
    groups, rows, columns = weight.shape[:3]
    total = torch.zeros(groups, rows, dtype=torch.float64, device=weight.device)
    values = values.view(groups, columns)
    used = (values != 0).any(0).nonzero().flatten()
    if len(used):
        total += torch.einsum("grc,gc->gr", weight[:, :, used].double().sum(3), values[:, used])
    return total.flatten()


@register_operation(nn.Linear)
class LinearStep(MatrixLayer):
    """``nn.Linear``, whose units stand in the last dimension."""

    dim = -1

    def matrix(self) -> Tensor:
        return self.module.weight.detach()[None, :, :, None]  # type: ignore[no-any-return]

    def write(self, module: Any, matrix: Tensor) -> None:
        module.weight.copy_(matrix[0, :, :, 0])


@register_operation(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class ConvolutionStep(MatrixLayer):
    """A convolution; its units are filters. A constant in front of padding is not folded: it ends where the zeros begin."""

    dim = 1

    @property
    def groups(self) -> int:
        return int(self.module.groups)

    def matrix(self) -> Tensor:
        weight = self.module.weight.detach()
        return weight.reshape(self.groups, -1, weight.size(1), weight[0, 0].numel())  # type: ignore[no-any-return]

    def write(self, module: Any, matrix: Tensor) -> None:
        module.weight.copy_(matrix.reshape(module.weight.shape))

    def folds(self, constant: Tensor) -> Tensor:
        padding = self.module.padding
        one = all(size == 1 for size in self.module.kernel_size)
        unpadded = padding == "valid" or (padding == "same" and one) or (padding != "same" and not any(padding))
        if unpadded or self.module.padding_mode != "zeros":
            return torch.ones_like(constant, dtype=torch.bool)
        return constant == 0


@register_operation(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
class TransposedStep(MatrixLayer):
    """A transposed convolution. A constant input makes a pattern at the output, so only zeros are folded."""

    dim = 1

    @property
    def groups(self) -> int:
        return int(self.module.groups)

    def matrix(self) -> Tensor:
        weight = self.module.weight.detach()  # inputs first
        grouped = weight.reshape(self.groups, -1, weight.size(1), weight[0, 0].numel())
        return grouped.transpose(1, 2)  # type: ignore[no-any-return]

    def write(self, module: Any, matrix: Tensor) -> None:
        module.weight.copy_(matrix.transpose(1, 2).reshape(module.weight.shape))

    def folds(self, constant: Tensor) -> Tensor:
        return constant == 0


@register_operation(nn.Embedding)
class EmbeddingStep(Layer):
    """``nn.Embedding``, whose units are the features of a row."""

    module: nn.Embedding

    def forward(self) -> Axis | None:
        if self.module.max_norm is not None:
            return None
        weight = self.module.weight.detach().double()
        same = (weight == weight[:1]).all(0)
        return Axis(len(self.shape) - 1, self.units.new(weight.size(1)), weight[0].where(same, torch.nan))

    def backward(self) -> list[Tensor | None]:
        return [None for _ in self.inputs]

    def replacement(self, kept: Callable[[Operation], Tensor]) -> nn.Module | None:
        columns = kept(self).to(self.module.weight.device)
        new = build({**sizes(self.module), "embedding_dim": int(columns.sum())}, self.module).to(self.module.weight)
        with torch.no_grad():
            new.weight.copy_(self.module.weight[:, columns])  # type: ignore[operator]
        return new.train(self.module.training)
