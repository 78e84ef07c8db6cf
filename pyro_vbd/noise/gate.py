"""Structured variational Bayesian dropout: a factor on each input, unit, channel or head, behind the nonlinearity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Gate"]


class Gate(nn.Module):
    r"""Multiplies each index of one dimension by a weight of its own.

    .. math:: B' = f(B) \odot W', \qquad q(W') = N(\theta, \alpha\theta^2)

    Eq. (19) of Liu et al. 2019. The weight is a plain parameter; under any prior of the library
    (``vbd.Classifier(net, prior)``) it has a posterior, and each datum gets one draw of it, the same at all places of a
    channel or tokens of a sequence: the distribution is that of a weight drawn anew for each datum, not an approximation
    of it. A gate is closed where :math:`\log\alpha > 0` (the authors' threshold), and then its unit can go.

    Means start at :math:`N(1, 0.01^2)`, as in the authors' released layer; start their variances at ``log_var = -9`` by
    ``VBDGuide(model, init_log_var=-9.0)``.

    Args:
        size: how many units, channels, inputs or heads.
        dim: which dimension of the input they stand in, counted with the batch at 0; -1 for the features of tokens.

    Raises:
        ValueError: for a size below 1 or the dimension of the batch; when called, for an input of another size.
    """

    def __init__(self, size: int, dim: int = 1) -> None:
        super().__init__()
        if size < 1 or dim == 0:
            raise ValueError(f"Gate(size={size}, dim={dim}): use a size of 1 or more, and not the dimension of the batch")
        self.size, self.dim = size, dim
        self.weight = nn.Parameter(torch.empty(size).normal_(1.0, 0.01))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape ``(B, ...)`` times the weight, broadcast over all dimensions but the batch and ``dim``."""
        if x.dim() < 2 or x.shape[self.dim] != self.size:
            raise ValueError(f"a gate of {self.size} in dimension {self.dim} got an input of shape {tuple(x.shape)}")
        # a factor with the batch in front: local reparameterisation then draws one gate for each datum and index
        gates = x.new_ones(x.shape[0], 1) * self.weight
        shape = [1] * x.dim()
        shape[0], shape[self.dim] = x.shape[0], self.size
        return x * gates.reshape(shape)

    def extra_repr(self) -> str:
        return f"{self.size}, dim={self.dim}"
