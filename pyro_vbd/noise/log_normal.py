"""Structured Bayesian pruning: log-normal multiplicative noise, one for each unit or channel, learned until it can go."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_vbd.noise.penalty import Penalised

__all__ = ["LogNormalGate"]

#: The prior is log-uniform on [exp(-20), 1].
_LOW, _HIGH = -20.0, 0.0
#: Ranges of the parameters. The released code lets log sigma fall to -20, where no double precision helps any more.
_LOC, _LOG_SCALE = (-20.0, 5.0), (-10.0, 5.0)


class LogNormalGate(Penalised):
    r"""Noise :math:`x \odot \theta` on each unit or channel, with a truncated log-normal posterior.

    .. math:: q(\log\theta) = TN(\mu, \sigma^2; a, b), \qquad p(\log\theta) = U(a, b), \qquad [a, b] = [-20, 0]

    .. math:: KL = \log\frac{b - a}{\sqrt{2\pi e}\,\sigma Z} - \frac{\alpha\varphi(\alpha) - \beta\varphi(\beta)}{2Z},
              \qquad Z = \Phi(\beta) - \Phi(\alpha), \; \alpha = \frac{a-\mu}{\sigma}, \; \beta = \frac{b-\mu}{\sigma}

    Neklyudov et al., *Structured Bayesian Pruning via Log-Normal Multiplicative Noise*, NeurIPS 2017 (arXiv:1705.07283),
    section 3, with the settings of the released code (necludov/group-sparsity-sbp). Each datum has noise of its own. In
    evaluation mode the noise is its mean, and 0 where the signal-to-noise ratio is not above ``threshold``.

    Args:
        size: units or channels.
        dim: the dimension of the input that holds them; dimension 0 holds the data.
        threshold: on the signal-to-noise ratio :math:`E[\theta]/\sqrt{Var[\theta]}`; 1 in the paper.
        init_log_scale: where :math:`\log\sigma` starts.

    Raises:
        ValueError: for a size below 1 or the dimension of the batch; when called, for an input of another size.

    Note:
        The KL and the moments are taken in double precision: their terms are large and nearly cancel.
    """

    def __init__(self, size: int, dim: int = 1, threshold: float = 1.0, init_log_scale: float = -5.0) -> None:
        super().__init__()
        if size < 1 or dim == 0:
            raise ValueError(
                f"LogNormalGate(size={size}, dim={dim}): use a size of 1 or more, and not the dimension of the batch"
            )
        self.dim, self.threshold = dim, threshold
        self.loc = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.full((size,), init_log_scale))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape ``(B, ...)`` times theta, broadcast over all dimensions but the batch and ``dim``."""
        size = self.loc.numel()
        if x.dim() < 2 or x.shape[self.dim] != size:
            raise ValueError(f"a gate of {size} in dimension {self.dim} got an input of shape {tuple(x.shape)}")
        gate = self.sample(len(x)) if self.training else (self.mean() * self.mask(self.threshold)).unsqueeze(0)
        shape = [1] * x.dim()
        shape[0], shape[self.dim] = gate.shape
        return x * gate.to(x if x.is_floating_point() else gate).reshape(shape)

    def sample(self, num_samples: int = 1) -> Tensor:
        """Draws of theta by the inverse distribution function, of shape ``(num_samples, size)``.

        As in the released code the inverse is that of N(mu, sigma^2), cut off at the quantiles 1e-5 and 1 - 1e-5: a unit
        with mu > 4.3 sigma draws 1 throughout, where the mean of q is a little less.
        """
        loc, scale, low, high = self._standardised()
        lower = torch.special.ndtr(low)
        # what there is of each datum needs no double precision, and takes most of the time; half would know no tails
        dtype = torch.promote_types(self.loc.dtype, torch.float32)
        loc, scale, lower, width = (v.to(dtype) for v in (loc, scale, lower, torch.special.ndtr(high) - lower))
        u = torch.rand(num_samples, len(loc), dtype=loc.dtype, device=loc.device)
        # the tails that the released code cuts off, where the inverse has no gradient
        quantile = (lower + u * width).clamp(1e-5, 1.0 - 1e-5)
        value = loc + math.sqrt(2.0) * scale * torch.erfinv(2.0 * quantile - 1.0)
        return value.clamp(_LOW, _HIGH).exp().to(self.loc)

    def mean(self) -> Tensor:
        r""":math:`E[\theta]` of each unit."""
        return self._log_moment(1).exp().to(self.loc)

    def signal_to_noise(self) -> Tensor:
        r""":math:`E[\theta] / \sqrt{Var[\theta]}` of each unit."""
        return torch.expm1(self._log_moment(2) - 2.0 * self._log_moment(1)).clamp_min(1e-30).rsqrt().to(self.loc)

    def mask(self, threshold: float = 1.0) -> Tensor:
        """1 where a unit stays, 0 where its signal-to-noise ratio is not above the threshold."""
        return (self.signal_to_noise() > threshold).to(self.loc)

    def penalty(self) -> Tensor:
        _, scale, low, high = self._standardised()
        log_z = _log_difference(high, low)
        edges = low * _density_over(low, log_z) - high * _density_over(high, log_z)
        kl = math.log(_HIGH - _LOW) - 0.5 * math.log(2.0 * math.pi * math.e) - scale.log() - log_z - 0.5 * edges
        return kl.sum().to(self.loc)

    def extra_repr(self) -> str:
        """Size, dimension and threshold."""
        return f"{self.loc.numel()}, dim={self.dim}, threshold={self.threshold}"

    def _standardised(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Location, scale, alpha and beta in double precision."""
        loc = self.loc.double().clamp(*_LOC)
        scale = self.log_scale.double().clamp(*_LOG_SCALE).exp()
        return loc, scale, (_LOW - loc) / scale, (_HIGH - loc) / scale

    def _log_moment(self, order: int) -> Tensor:
        r""":math:`\log E[\theta^k] = k\mu + k^2\sigma^2/2 + \log\frac{\Phi(\beta-k\sigma) - \Phi(\alpha-k\sigma)}{Z}`."""
        loc, scale, low, high = self._standardised()
        shift = order * scale
        inside = _log_difference(high - shift, low - shift) - _log_difference(high, low)
        return order * loc + 0.5 * shift.square() + inside


def _log_difference(high: Tensor, low: Tensor) -> Tensor:
    r""":math:`\log(\Phi(high) - \Phi(low))` for high > low, on the side of 0 where the difference does not cancel."""
    flip = low + high > 0.0
    high, low = torch.where(flip, -low, high), torch.where(flip, -high, low)
    top, bottom = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return top + torch.log(-torch.expm1((bottom - top).clamp_max(-1e-300)))


def _density_over(x: Tensor, log_z: Tensor) -> Tensor:
    r""":math:`\varphi(x)/Z`."""
    return torch.exp(-0.5 * x.square() - 0.5 * math.log(2.0 * math.pi) - log_z)
