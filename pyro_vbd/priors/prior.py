"""The contract of a prior: it writes the Pyro statements of one weight tensor, and nothing else."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.distributions import CentredNormal
from pyro_vbd.priors.hyperparameter import Hyperparameter, Learned, check_hyperparameter, state_hyperparameter
from pyro_vbd.priors.sharing import shared_shape

__all__ = ["POWERS", "HierarchicalPrior", "Prior"]

#: What a hyperprior may stand on, and the power of it that is the standard deviation of the weight.
POWERS: Mapping[str, float] = MappingProxyType({"variance": 0.5, "scale": 1.0, "precision": -0.5})

_VARIANCES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"variance": lambda variance: variance, "scale": Tensor.square, "precision": Tensor.reciprocal}
)


class Prior(ABC):
    """A prior on weight tensors, as statements of a Pyro model.

    Its public attributes are its settings: a run that goes on from a checkpoint must have the same.

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

    def learned(self, name: str) -> dict[str, float]:
        """Where the :class:`Learned` hyperparameters of the weight ``name`` start, by their site.

        Those that are missing here are ``pyro.param`` statements, kept in Pyro's store.
        """
        return {}

    def input_first(self) -> Prior:
        """The same prior for a weight whose input dimension stands before its output dimension."""
        return self


class HierarchicalPrior(Prior):
    r"""A Gaussian scale mixture, as two statements:

    .. math:: \gamma \sim p(\gamma), \qquad W \sim N(0, \tau^2 \sigma(\gamma)^2),

    eq. (11) of Liu et al. 2019 for any :math:`p(\gamma)`; :math:`\sigma(\gamma)` is
    :math:`\gamma^{1/2}`, :math:`\gamma` or :math:`\gamma^{-1/2}` as :math:`\gamma` is the variance, the scale or the
    precision. The site of :math:`\gamma` is ``"<weight>_gamma"``, without a dot: Pyro's automatic guides read a dot as an
    attribute, and could not keep a weight and an attribute of it. Without a global scale :math:`\tau = 1`.

    Args:
        hyperparameters: the arguments of :meth:`hyperprior` besides ``like``: positive numbers, :class:`Learned` ones, or
            distributions of their own, which become sites ``"<weight>_<argument>"``.
        per: what shares one gamma; see :func:`~pyro_vbd.priors.sharing.shared_shape`.
        global_scale: :math:`\tau`, one for the weight tensor, at the site ``"<weight>_global_scale"``: a positive number,
            a :class:`Learned` one, or a distribution such as ``dist.HalfCauchy(1.)``.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, or an unknown ``per`` or ``on``.
    """

    #: What the hyperprior's density stands on: a key of ``POWERS``.
    on: str
    hyperparameters: Mapping[str, Hyperparameter] = MappingProxyType({})
    per: str = "weight"
    global_scale: Hyperparameter | None = None
    _input_first = False

    def __init__(
        self,
        hyperparameters: Mapping[str, Hyperparameter] = MappingProxyType({}),
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        family = type(self).__name__
        if getattr(self, "on", None) not in POWERS:
            raise ValueError(f"{family}(on={getattr(self, 'on', None)!r}) is unknown: use one of {', '.join(POWERS)}")
        for name, value in hyperparameters.items():
            check_hyperparameter(family, name, value)
        if global_scale is not None:
            check_hyperparameter(family, "global_scale", global_scale)
        shared_shape(per, torch.Size((1, 1)))  # every way of sharing fits a matrix
        self.hyperparameters, self.per, self.global_scale = dict(hyperparameters), per, global_scale

    @abstractmethod
    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.TorchDistribution:
        """Distribution of one :math:`\\gamma`, of batch shape ``()``, in the dtype and on the device of ``like``."""

    def link(self) -> Any:
        """A transform of :math:`\\gamma` whose result takes its place in :math:`\\sigma`, where a family has one."""
        return None

    def sample(self, name: str, init: Tensor) -> Tensor:
        """Declare ``<name>_gamma`` and ``name``; see :meth:`Prior.sample`."""
        values = {k: self._value(name, k, v, init) for k, v in self.hyperparameters.items()}
        shape, link = shared_shape(self.per, init.shape, self._input_first), self.link()
        hyperprior = self.hyperprior(init, **values)
        lead = hyperprior.batch_shape[: max(len(hyperprior.batch_shape) - init.dim(), 0)]
        gamma = pyro.sample(
            f"{name}_gamma",
            hyperprior.expand(lead + shape).to_event(init.dim()),
            infer={} if link is None else {"link": link},  # type: ignore[arg-type]
        )
        variance = _VARIANCES[self.on](gamma if link is None else link(gamma))
        if self.global_scale is not None:
            variance = variance * self._value(name, "global_scale", self.global_scale, init).square()
        if shape != init.shape:
            variance = variance.expand(variance.shape[: variance.dim() - init.dim()] + init.shape)
        return pyro.sample(name, CentredNormal(variance).to_event(init.dim()), infer={"init": init})  # type: ignore[arg-type]

    def learned(self, name: str) -> dict[str, float]:
        """See :meth:`Prior.learned`."""
        values = {**self.hyperparameters, "global_scale": self.global_scale}
        return {f"{name}_{k}": value.init for k, value in values.items() if isinstance(value, Learned)}

    @staticmethod
    def _value(name: str, argument: str, value: Hyperparameter, init: Tensor) -> Tensor:
        stated = state_hyperparameter(f"{name}_{argument}", value, init)
        # dimensions of a plate of draws stand in front of the weight's
        return stated.reshape(stated.shape + (1,) * init.dim()) if stated.dim() else stated

    def input_first(self) -> Self:
        """See :meth:`Prior.input_first`."""
        swapped = copy.copy(self)
        swapped._input_first = True
        return swapped

    def arguments(self) -> dict[str, Any]:
        """What the prior was made with, as its ``repr`` shows it; a family adds what is no hyperparameter."""
        per = {} if self.per == "weight" else {"per": self.per}
        tau = {} if self.global_scale is None else {"global_scale": self.global_scale}
        return {**self.hyperparameters, **per, **tau}

    def __repr__(self) -> str:
        parts = (f"{k}={v:g}" if isinstance(v, int | float) else f"{k}={v!r}" for k, v in self.arguments().items())
        return f"{type(self).__name__}({', '.join(parts)})"
