r"""Integrals over the real line of functions that fall off on both sides, elementwise over a tensor of them.

The trapezoidal rule on the interval outside which the integrand is below e^-45 of its largest value: for an analytic
integrand its error falls exponentially with the number of nodes (Trefethen and Weideman 2014, *The exponentially convergent
trapezoidal rule*). The interval is found by zooming in on the peak, wherever it is and however narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Grid", "grid"]

_DROP = 45.0  # e^-45 = 3e-20
_WIDEST, _ZOOM_NODES, _ZOOMS = 300.0, 41, 6


@dataclass(frozen=True)
class Grid:
    """Nodes and the logarithm of an integrand at them; both ``(nodes, *shape)``, equidistant along the first."""

    x: Tensor
    log_f: Tensor

    def log_integral(self) -> Tensor:
        """Logarithm of the integral, of shape ``shape``."""
        return torch.logsumexp(self.log_f, 0) + (self.x[1] - self.x[0]).log()

    def expectation(self, log_g: Tensor) -> Tensor:
        """The mean of g under the normalised integrand, from log g at the nodes."""
        return torch.exp(torch.logsumexp(self.log_f + log_g, 0) - torch.logsumexp(self.log_f, 0))

    def quantiles(self) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of probabilities and of the numbers of the integrals (in ``shape``, flattened) that each is of.

        It says where the normalised integral reaches the probability; the density is taken as linear between nodes.
        """
        density = (self.log_f - self.log_f.amax(0)).exp().reshape(len(self.x), -1).T  # (integrals, nodes)
        start, step = self.x[0].flatten(), (self.x[1] - self.x[0]).flatten()
        parts = 0.5 * (density[:, 1:] + density[:, :-1])
        whole = parts.sum(1, keepdim=True)
        density, parts = density / whole, parts / whole
        cumulative = torch.cat([parts.new_zeros(len(parts), 1), parts.cumsum(1)], 1)
        # one increasing sequence: the k-th integral goes from k to k + 1
        ends = (cumulative.nan_to_num().clamp(0.0, 1.0) + torch.arange(len(parts), device=parts.device)[:, None]).flatten()
        density, cumulative = density.flatten(), cumulative.flatten()

        def at(probability: Tensor, number: Tensor) -> Tensor:
            first = number * len(self.x)
            place = torch.searchsorted(ends, (number + probability).contiguous(), right=True) - 1
            left = torch.minimum(torch.maximum(place, first), first + len(self.x) - 2)
            f0, f1 = density[left], density[left + 1]
            rest = (probability - cumulative[left]).clamp_min(0.0)
            # the root of (f1 - f0)/2 t^2 + f0 t = rest, without cancellation
            below = f0 + (f0.square() + 2.0 * (f1 - f0) * rest).clamp_min(0.0).sqrt()
            part = torch.where(below == 0, 0.5, 2.0 * rest / below).clamp(0.0, 1.0)
            return start[number] + step[number] * (left - first + part)

        return at

    def quantile(self, probability: Tensor) -> Tensor:
        """Where each normalised integral reaches ``probability``, which broadcasts against ``(..., *shape)``."""
        shape = torch.broadcast_shapes(probability.shape, self.x.shape[1:])
        number = torch.arange(self.x[0].numel(), device=self.x.device).reshape(self.x.shape[1:])
        return self.quantiles()(probability.expand(shape), number.expand(shape))


@torch.no_grad()
def _interval(log_f: Callable[[Tensor], Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.full_like(like, -_WIDEST), torch.full_like(like, _WIDEST)
    unit = torch.linspace(0.0, 1.0, _ZOOM_NODES, dtype=like.dtype, device=like.device)
    unit = unit.reshape((-1,) + (1,) * like.dim())
    number = torch.arange(_ZOOM_NODES, device=like.device).reshape(unit.shape)
    for _ in range(_ZOOMS):
        values = log_f(low + (high - low) * unit).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        inside = values > values.amax(0) - _DROP
        first = torch.where(inside, number, _ZOOM_NODES).amin(0) - 1
        last = torch.where(inside, number, -1).amax(0) + 1
        step = (high - low) / (_ZOOM_NODES - 1)
        low, high = low + step * first.clamp_min(0), low + step * last.clamp_max(_ZOOM_NODES - 1)
    return low, high


def grid(log_f: Callable[[Tensor], Tensor], like: Tensor, nodes: int = 160) -> Grid:
    """Nodes for the integrals of exp(log_f), one integral for each element of ``like``.

    Args:
        log_f: of a tensor of shape ``(k, *like.shape)``, elementwise; where it does not fall off on both sides of its
            largest value the integral is NaN.
        like: float64, of the shape of the integrals.
        nodes: 160 give at least six digits for what this library integrates.
    """
    low, high = _interval(log_f, like)
    unit = torch.linspace(0.0, 1.0, nodes, dtype=like.dtype, device=like.device).reshape((-1,) + (1,) * like.dim())
    x = low + (high - low) * unit
    values = log_f(x)
    # an integrand that does not fall off has no integral
    falls = torch.maximum(values[0], values[-1]).nan_to_num(nan=-torch.inf) < values.amax(0) - 20.0
    return Grid(x, torch.where(falls, values, torch.nan))
