"""Jeffreys' prior between two bounds: a Gaussian whose log variance is uniform."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vbd.distributions import positive
from pyro_vbd.priors.hyperparameter import Hyperparameter, is_number
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior

__all__ = ["Jeffreys"]


class Jeffreys(HierarchicalPrior):
    r"""A Gaussian whose variance has the density :math:`1/\gamma` between a floor and a ceiling. Proper between them.

    .. math:: p(\gamma) = \frac{1}{\gamma \log(b/a)}, \quad a \le \gamma \le b, \qquad W \sim N(0, \gamma)

    Without a floor the density is unbounded at 0 and the loss, which falls by :math:`\log S` as a weight shrinks, has no
    lower bound; so a floor is asked for. The density stands on the variance. With q(gamma) a delta the optimum is
    :math:`\gamma^* = S/(n + 2)`, clipped to the bounds.

    Source: Figueiredo 2003, *Adaptive sparseness for supervised learning*, section 3.4, without the bounds.

    Args:
        floor: a > 0, in the units of the weight squared. The lower it is the harder the prior shrinks: it pulls at a single
            weight three times as hard as :class:`GaussianUniform` does. The default is for small data sets; with many
            data a lower floor removes more.
        ceiling: b > a.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: if not 0 < floor < ceiling < infinity, or for an unknown ``per``.
    """

    on = "variance"

    def __init__(
        self,
        floor: float = 1.0,
        ceiling: float = 1e3,
        *,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        super().__init__({}, per, global_scale)
        if not (is_number(floor) and is_number(ceiling) and 0 < floor < ceiling):
            raise ValueError(
                f"Jeffreys(floor={floor}, ceiling={ceiling}) is no interval of positive variances: without bounds 1/gamma "
                "is improper and the loss has no lower bound; use 0 < floor < ceiling"
            )
        self.floor, self.ceiling = float(floor), float(ceiling)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> positive.Reciprocal:
        return positive.Reciprocal(like.new_full((), self.floor), like.new_full((), self.ceiling), validate_args=False)

    def arguments(self) -> dict[str, Any]:
        return {"floor": self.floor, "ceiling": self.ceiling, **super().arguments()}


@register_optimum(positive.Reciprocal, "variance")
def reciprocal_variance(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r""":math:`\gamma^* = S/(n + 2)`, clipped to [a, b]."""
    return (sum_of_squares / (count + 2.0)).clamp(hyperprior.low, hyperprior.high)
