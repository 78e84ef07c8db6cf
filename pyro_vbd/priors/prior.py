"""The contract of a prior: it writes the Pyro statements of one weight tensor, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType

import pyro
import pyro.distributions as dist
from torch import Tensor

from pyro_vbd.distributions import CentredNormal

__all__ = ["POWERS", "HierarchicalPrior", "Prior"]

#: What a hyperprior may stand on, and the power of it that is the standard deviation of the weight.
POWERS: Mapping[str, float] = MappingProxyType({"variance": 0.5, "scale": 1.0, "precision": -0.5})

_VARIANCES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"variance": lambda variance: variance, "scale": Tensor.square, "precision": Tensor.reciprocal}
)


class Prior(ABC):
    """A prior on weight tensors, as statements of a Pyro model.

    A family is one file: a final subclass that declares the weight, and, where the family has a level above the weights,
    the closed-form optimum of that level (:func:`~pyro_vbd.priors.register_optimum`).
    """

    @abstractmethod
    def sample(self, name: str, init: Tensor) -> Tensor:
        """Declare the weight ``name`` under this prior, by ``pyro.sample``.

        Args:
            name: site of the weight; a level above it gets a site name that begins with ``name``.
            init: a tensor of the weight's shape, dtype and device. Its values are where a guide starts the mean; pass it
                on as ``infer={"init": init}``.

        Returns:
            The weight, of shape ``init.shape`` (with leading dimensions under a plate).
        """


class HierarchicalPrior(Prior):
    r"""A Gaussian scale mixture with one scale per weight, as two statements:

    .. math:: \gamma \sim p(\gamma), \qquad W \sim N(0, \sigma(\gamma)^2),

    eq. (11) of Liu et al. 2019 for any :math:`p(\gamma)`; :math:`\sigma(\gamma)` is
    :math:`\gamma^{1/2}`, :math:`\gamma` or :math:`\gamma^{-1/2}` as :math:`\gamma` is the variance, the scale or the
    precision. The site of :math:`\gamma` is ``"<weight>.gamma"``.
    """

    #: What the hyperprior's density stands on: a key of ``POWERS``.
    on: str

    @abstractmethod
    def hyperprior(self, like: Tensor) -> dist.TorchDistribution:
        """Distribution of one :math:`\\gamma`, of batch shape ``()``, in the dtype and on the device of ``like``."""

    def sample(self, name: str, init: Tensor) -> Tensor:
        """Declare ``<name>.gamma`` and ``name``; see :meth:`Prior.sample`."""
        hyperprior = self.hyperprior(init).expand(init.shape).to_event(init.dim())
        variance = _VARIANCES[self.on](pyro.sample(f"{name}.gamma", hyperprior))
        return pyro.sample(name, CentredNormal(variance).to_event(init.dim()), infer={"init": init})  # type: ignore[arg-type]
