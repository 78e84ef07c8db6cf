"""Any distribution on (0, inf) as the hyperprior of a Gaussian's variance, scale or precision."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor

from pyro_vbd.distributions import is_positive, map_tensors
from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.prior import HierarchicalPrior

__all__ = ["ScaleMixture"]


class ScaleMixture(HierarchicalPrior):
    r"""A Gaussian scale mixture under a hyperprior of your own.

    .. math:: \gamma \sim p(\gamma), \qquad W \sim N(0, \sigma(\gamma)^2)

    with :math:`\sigma(\gamma)` equal to :math:`\gamma^{1/2}`, :math:`\gamma` or :math:`\gamma^{-1/2}`. Where the optimum
    of gamma is registered for the hyperprior's type (:func:`~pyro_vbd.priors.register_optimum`), a guide uses it;
    otherwise gamma is a learned parameter, one for each group of weights that share it.

    Args:
        hyperprior: a univariate Pyro distribution with its support in (0, inf), of batch shape ``()``.
        on: what its density stands on: ``"variance"``, ``"scale"`` or ``"precision"``. The optimum depends on it.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: if ``on`` is none of the three, the hyperprior is not univariate and scalar, or its support holds
            negative numbers.

    Warning:
        A density that grows without bound at gamma = 0 leaves the loss without a lower bound.
    """

    def __init__(
        self,
        hyperprior: dist.TorchDistribution,
        on: str = "variance",
        *,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        self.on = on
        super().__init__({}, per, global_scale)
        if hyperprior.batch_shape or hyperprior.event_shape:
            raise ValueError(
                f"ScaleMixture needs the distribution of one gamma, but {hyperprior} has shape "
                f"{tuple(hyperprior.shape())}: pass scalar parameters"
            )
        if not is_positive(hyperprior):
            raise ValueError(
                f"ScaleMixture needs a hyperprior on (0, inf), but {hyperprior} has the support {hyperprior.support}: "
                "use a distribution of positive numbers"
            )
        self._hyperprior = hyperprior

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.TorchDistribution:
        return map_tensors(self._hyperprior, lambda value: value.to(like))

    def arguments(self) -> dict[str, Any]:
        return {"hyperprior": self._hyperprior, "on": self.on, **super().arguments()}
