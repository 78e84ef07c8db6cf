"""Gaussian dropout: noise on what a layer puts out, as if each of its weights were noisy."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor
from pyro_vbd.noise.gaussian import checked_rate

__all__ = ["GaussianDropout"]


class GaussianDropout(nn.Module):
    r"""A layer whose outputs are drawn as :math:`N(x\theta,\; \alpha\, x^2 \theta^2)`, :math:`\alpha = p/(1-p)` fixed.

    Wang and Manning, *Fast dropout training*, ICML 2013; sections 2 and 3 of Kingma et al. 2015 (arXiv:1506.02557): the
    weights are :math:`N(\theta, \alpha\theta^2)` (eq. (4) of Liu et al. 2019), and the outputs are sampled instead of
    them (eq. (3)), each with noise of its own. There is no KL: with this alpha under a log-uniform prior it would be
    constant. In evaluation mode the layer is as it was.

    Args:
        layer: a linear layer or a convolution; any module with a ``weight`` that local reparameterisation knows.
        p: the binary dropout rate with the same variance, in [0, 1).

    Raises:
        ValueError: for a rate outside [0, 1), or a layer without a weight.
    """

    def __init__(self, layer: nn.Module, p: float = 0.5) -> None:
        super().__init__()
        if "weight" not in dict(layer.named_parameters(recurse=False)):
            raise ValueError(f"{type(layer).__name__} has no parameter 'weight' to put noise on: wrap a layer that has one")
        self.layer, self.p = layer, checked_rate(p)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return self.layer(x)  # type: ignore[no-any-return]
        weight: Tensor = self.layer.weight  # type: ignore[assignment]  # under torch.func any tensor stands for it
        noisy = GaussianTensor(weight, self.p / (1.0 - self.p) * weight.square())
        return functional_call(self.layer, {"weight": noisy}, (x,))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """The rate."""
        return f"p={self.p}"
