"""Concrete dropout: binary dropout whose rate is learned through a continuous relaxation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_vbd.noise.penalty import Penalised

__all__ = ["ConcreteDropout"]

_EPS = 1e-7


class ConcreteDropout(Penalised):
    r"""A layer with dropout on its inputs, at a rate p that is learned.

    .. math:: \tilde x = x \odot \frac{1 - z}{1 - p}, \qquad
              z = \mathrm{sigmoid}\Big(\tfrac1t \big(\log\tfrac{p}{1-p} + \log\tfrac{u}{1-u}\big)\Big), \quad u \sim U(0, 1)

    .. math:: \mathrm{penalty} = \frac{l^2}{2}\, \frac{\lVert W \rVert^2}{1 - p} - K H(p), \qquad
              H(p) = -p\log p - (1-p)\log(1-p)

    Section 3 of Gal, Hron and Kendall, *Concrete Dropout*, NeurIPS 2017 (arXiv:1705.07832), in nats over the whole data
    set; W is the layer's weight as it meets the rescaled input, K the number of its inputs. For a convolution it is
    the spatial form: one z for each channel of each datum, and K the number of channels. In evaluation mode the layer is
    as it was.

    Args:
        layer: a linear layer or a convolution (1, 2 or 3 dimensions).
        init_p: where p starts, in (0, 1).
        temperature: t; the released code takes 0.1, and 2/3 for the spatial form.
        length_scale: l, the prior length scale; the released code takes 1e-4 in its demonstration.

    Raises:
        TypeError: for any other layer.
        ValueError: for numbers out of range.
    """

    def __init__(
        self, layer: nn.Module, init_p: float = 0.1, temperature: float | None = None, length_scale: float = 1e-2
    ) -> None:
        super().__init__()
        if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            raise TypeError(f"ConcreteDropout cannot wrap a {type(layer).__name__}: use a linear layer or a convolution")
        if not 0.0 < init_p < 1.0:
            raise ValueError(f"init_p={init_p} is no dropout rate that can be learned: use a number between 0 and 1")
        self.spatial = not isinstance(layer, nn.Linear)
        self.temperature = (2.0 / 3.0 if self.spatial else 0.1) if temperature is None else temperature
        if self.temperature <= 0.0 or length_scale < 0.0:
            raise ValueError(
                f"temperature={self.temperature}, length_scale={length_scale}: use a temperature above 0 and a length "
                "scale of 0 or more"
            )
        self.layer, self.length_scale = layer, length_scale
        self.logit = nn.Parameter(layer.weight.new_tensor(math.log(init_p / (1.0 - init_p))))

    @property
    def p(self) -> Tensor:
        """The dropout rate as it stands: a scalar."""
        return self.logit.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.layer(x)  # type: ignore[no-any-return]
        # a channel is dropped whole; a convolution's input without a batch has one dimension less
        dims = self.layer.weight.dim() - 2
        shape = (*x.shape[: x.dim() - dims], *(1,) * dims)
        u = torch.rand(shape, dtype=x.dtype, device=x.device).clamp(_EPS, 1.0 - _EPS)
        z = ((self.logit + u.logit()) / self.temperature).sigmoid()
        return self.layer(x * (1.0 - z) / (1.0 - self.p))  # type: ignore[no-any-return]

    def penalty(self) -> Tensor:
        p = self.p
        inputs = self.layer.in_features if isinstance(self.layer, nn.Linear) else self.layer.in_channels
        entropy = torch.special.entr(p) + torch.special.entr(1.0 - p)
        return 0.5 * self.length_scale**2 * self.layer.weight.square().sum() / (1.0 - p) - inputs * entropy

    def extra_repr(self) -> str:
        """Temperature and length scale."""
        return f"temperature={self.temperature:.3g}, length_scale={self.length_scale:g}"
