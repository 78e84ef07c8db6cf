"""Spike and slab: a Gaussian whose variance is one of two numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vbd.distributions import positive
from pyro_vbd.priors.hyperparameter import Hyperparameter, check_number
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior

__all__ = ["SpikeAndSlab"]


class SpikeAndSlab(HierarchicalPrior):
    r"""A Gaussian that is narrow or wide: stochastic search variable selection. A proper prior.

    .. math:: \gamma = s_1^2 \text{ with probability } \pi, \text{ else } s_0^2, \qquad W \sim N(0, \gamma)

    With q(gamma) a delta a group is in the slab where
    :math:`S(1/s_0^2 - 1/s_1^2) > n \log(s_1^2/s_0^2) + 2\log((1-\pi)/\pi)`; with ``scale_posterior="exact"`` q(gamma)
    holds the probability of that. The posterior of a weight cannot leave one for the other by small steps where both are
    far apart: the guide then keeps what it started with.

    Source: George and McCulloch 1993, *Variable selection via Gibbs sampling*, eq. (4).

    Args:
        spike: :math:`s_0`, in the units of the weight.
        slab: :math:`s_1 > s_0`.
        probability: :math:`\pi` in (0, 1), of the slab.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: if not 0 < spike < slab < infinity, the probability is not inside (0, 1), or for an unknown ``per``.

    Note:
        gamma takes two values only: NUTS, which needs a continuum, cannot run on it.
    """

    on = "variance"

    def __init__(
        self,
        spike: float = 0.01,
        slab: float = 1.0,
        probability: float = 0.1,
        *,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        super().__init__({}, per, global_scale)
        for name, value in {"spike": spike, "slab": slab, "probability": probability}.items():
            check_number("SpikeAndSlab", name, value)
        if not spike < slab:
            raise ValueError(f"SpikeAndSlab(spike={spike}, slab={slab}) has no spike: use spike < slab")
        if not probability < 1:
            raise ValueError(f"SpikeAndSlab(probability={probability}) leaves no spike: use a number inside (0, 1)")
        self.spike, self.slab, self.probability = float(spike), float(slab), float(probability)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> positive.TwoPoint:
        low, high = like.new_full((), self.spike**2), like.new_full((), self.slab**2)
        return positive.TwoPoint(low, high, like.new_full((), self.probability), validate_args=False)

    def arguments(self) -> dict[str, Any]:
        return {"spike": self.spike, "slab": self.slab, "probability": self.probability, **super().arguments()}


@register_optimum(positive.TwoPoint, "variance")
def two_point_variance(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    """The slab's variance where the group is too large for the spike, else the spike's; see :class:`SpikeAndSlab`."""
    low, high, odds = hyperprior.low, hyperprior.high, torch.logit(hyperprior.probability)
    in_slab = sum_of_squares * (1.0 / low - 1.0 / high) > count * (high / low).log() - 2.0 * odds
    return torch.where(in_slab, high, low)
