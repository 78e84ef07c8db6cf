"""The learned posterior of one latent: a module with its parameters, and the distribution that they make."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import IndependentTransform, biject_to

from pyro_vbd.distributions import map_tensors, tensors
from pyro_vbd.parameters import announce, module_key
from pyro_vbd.posterior.mean_field import AdditiveNormal, MeanFieldNormal, MultiplicativeNormal

__all__ = [
    "FreePosterior",
    "GaussianPosterior",
    "PointPosterior",
    "SitePosterior",
    "dropout_rate",
    "gaussian_quantile",
    "safe_log_var",
    "submodule_name",
]

#: log alpha from which a weight counts as removed, and the share of the weights that may start beyond it.
_REMOVED, _MAY_START_REMOVED = 3.0, 0.01


class SitePosterior(nn.Module, ABC):
    """q of one latent.

    Args:
        label: prefix of the parameters' names, unique in the process.
    """

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def parameter(self, name: str) -> Tensor:
        """A parameter of this module, as Pyro's handlers see it."""
        value: Tensor = getattr(self, name)
        return announce(f"{self.label}.{name}", value) if isinstance(value, nn.Parameter) else value

    @abstractmethod
    def distribution(self) -> Any:
        """q, of the shape of the site, without its event dimensions declared."""

    @abstractmethod
    def quantile(self, probability: Tensor) -> Tensor:
        """The elementwise quantile, of shape ``probability.shape + site shape``."""


def submodule_name(site: str) -> str:
    """The name under which a guide keeps the posterior of a site: unique, and never that of an attribute of a module."""
    return "q/" + module_key(site)


class GaussianPosterior(SitePosterior):
    r"""A latent on the real line: :math:`N(\theta, \sigma^2)`, with an alpha of its own or a shared or fixed one.

    Args:
        label: see :class:`SitePosterior`.
        loc: where the means start.
        log_var: where :math:`\log\sigma^2` starts; the parameter of the additive form (eq. 18).
        log_alpha: where :math:`\log\alpha` starts, of a shape that broadcasts; the parameter of the multiplicative form
            (eq. 17), used instead of ``log_var`` where given.
        learn_alpha: whether ``log_alpha`` is learned.
    """

    log_alpha: Tensor

    def __init__(
        self, label: str, loc: Tensor, log_var: float, log_alpha: Tensor | None = None, learn_alpha: bool = True
    ) -> None:
        super().__init__(label)
        self.loc = nn.Parameter(loc.detach().clone(memory_format=torch.contiguous_format))
        self.multiplicative = log_alpha is not None
        if log_alpha is None:
            self.log_var = nn.Parameter(torch.full_like(self.loc, log_var))
        elif learn_alpha:
            self.log_alpha = nn.Parameter(log_alpha)  # type: ignore[assignment]
        else:
            self.register_buffer("log_alpha", log_alpha)

    def distribution(self) -> MeanFieldNormal:
        if self.multiplicative:
            return MultiplicativeNormal(self.parameter("loc"), self.parameter("log_alpha"))
        return AdditiveNormal(self.parameter("loc"), self.parameter("log_var"))

    def quantile(self, probability: Tensor) -> Tensor:
        return gaussian_quantile(self.distribution(), probability)


class _ConstrainedPosterior(SitePosterior):
    """A latent under a constraint, with its parameters on the whole space. Abstract."""

    def __init__(self, label: str, support: Any) -> None:
        super().__init__(label)
        self._bijection = self._moved = biject_to(support)

    def bijection(self, like: Tensor) -> Any:
        """The map from the whole space into the support. Its bounds follow the parameters, since no module moves them."""
        if any(bound.device != like.device or bound.dtype != like.dtype for _, bound in tensors(self._moved)):
            with torch.inference_mode(False):  # bounds that were made in it could never be trained through
                # from the first bounds: those that were moved may have been rounded to half precision
                self._moved = map_tensors(self._bijection, lambda bound: bound.to(like))
        return self._moved


class FreePosterior(_ConstrainedPosterior):
    """A latent under a constraint: a Gaussian on the whole space, carried into the support, its Jacobian included.

    Args:
        label: see :class:`SitePosterior`.
        value: where the median starts, inside the support.
        support: the constraint.
        scale: where the standard deviation on the unconstrained space starts.
    """

    def __init__(self, label: str, value: Tensor, support: Any, scale: float) -> None:
        super().__init__(label, support)
        self.loc = nn.Parameter(self._bijection.inv(value).detach().clone())
        self.log_var = nn.Parameter(torch.full_like(self.loc, 2.0 * math.log(scale)))

    def distribution(self) -> dist.TransformedDistribution:
        return dist.TransformedDistribution(self._unconstrained(), [self.bijection(self.loc)])

    def _unconstrained(self) -> AdditiveNormal:
        return AdditiveNormal(self.parameter("loc"), self.parameter("log_var"))

    def quantile(self, probability: Tensor) -> Tensor:
        transform = elementwise = self.bijection(self.loc)
        while isinstance(elementwise, IndependentTransform):
            elementwise = elementwise.base_transform
        # the sign is a tensor where a bound is one, and the same for all elements
        falling = elementwise.domain.event_dim == 0 and bool((torch.as_tensor(elementwise.sign) < 0).all())
        return transform(gaussian_quantile(self._unconstrained(), 1 - probability if falling else probability))  # type: ignore[no-any-return]


class PointPosterior(_ConstrainedPosterior):
    """A delta at a learned point of the support.

    Args:
        label: see :class:`SitePosterior`.
        value: where it starts, inside the support.
        support: the constraint.
    """

    def __init__(self, label: str, value: Tensor, support: Any) -> None:
        super().__init__(label, support)
        self.unconstrained = nn.Parameter(self._bijection.inv(value).detach().clone())

    def value(self) -> Tensor:
        """The point."""
        return self.bijection(self.unconstrained)(self.parameter("unconstrained"))  # type: ignore[no-any-return]

    def distribution(self) -> dist.Delta:
        return dist.Delta(self.value(), validate_args=False)

    def quantile(self, probability: Tensor) -> Tensor:
        value = self.value()
        return value.expand(probability.shape + value.shape)


def gaussian_quantile(q: MeanFieldNormal, probability: Tensor) -> Tensor:
    """Every quantile of every element, of shape ``probability.shape + q.batch_shape``."""
    return q.icdf(probability.reshape(probability.shape + (1,) * len(q.batch_shape)))


def safe_log_var(loc: Tensor, log_var: float) -> float:
    r"""``log_var``, or less, so that at most 1% of the nonzero means start with :math:`\log\alpha > 3`.

    A weight that starts there counts as removed before it has seen a datum.
    """
    squares = loc.detach()[loc.detach() != 0].square().flatten()
    if not squares.numel():
        return log_var
    smallest_kept = squares.kthvalue(int(_MAY_START_REMOVED * squares.numel()) + 1).values
    # a little less, so that rounding puts none of the kept beyond it: they may all be alike
    return min(log_var, _REMOVED - 1e-4 + math.log(max(float(smallest_kept), torch.finfo(loc.dtype).tiny)))


_SHARED_SHAPES: Mapping[str, Callable[[torch.Size], tuple[int, ...]]] = MappingProxyType(
    {"unit": lambda shape: (*shape[:1], *(1 for _ in shape[1:])), "layer": lambda shape: (1,) * len(shape)}
)


def dropout_rate(alpha: str | float, loc: Tensor, log_var: float) -> tuple[Tensor | None, bool]:
    """Where log alpha starts and whether it is learned, for the ``alpha`` of a guide.

    Args:
        alpha: ``"weight"``: one per weight, in the additive form (then there is no log alpha to start); ``"unit"``: one
            for each index of the weight's first dimension; ``"layer"``: one for all; a number: alpha itself, fixed.
        loc: the initial means.
        log_var: the initial log variance; a shared alpha starts at that variance over the mean of loc^2, at most 1.

    Raises:
        ValueError: if ``alpha`` is something else, or not positive.
    """
    if alpha == "weight":
        return None, True
    if isinstance(alpha, Real) and 0 < alpha < math.inf:
        return loc.new_full((), math.log(alpha)), False
    if alpha not in _SHARED_SHAPES:
        raise ValueError(f"alpha={alpha!r} is unknown: use 'weight', 'unit', 'layer', or a positive number that is fixed")
    shape = _SHARED_SHAPES[str(alpha)](loc.shape)
    shared = [d for d, size in enumerate(shape) if size == 1]
    mean_square = loc.detach().square().mean(shared, keepdim=True) if shared else loc.detach().square()
    return (log_var - mean_square.log()).clamp_max(0.0), True
