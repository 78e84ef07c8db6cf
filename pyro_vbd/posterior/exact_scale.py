r"""q(gamma) at its best: the exact posterior of a scale given q(W), instead of a delta.

.. math:: q(\gamma) = \tfrac1Z\, p(\gamma)\, v(\gamma)^{-n/2} e^{-S/2v(\gamma)}, \qquad S = \sum_i \theta_i^2 + \sigma_i^2

With it the bound of a group of n weights is, instead of eq. (14) of Liu et al. 2019 at a point,

.. math:: E_{q(\gamma)} KL(q(W) \| p(W|\gamma)) + KL(q(\gamma) \| p(\gamma))
          = -\log Z - \tfrac12 \textstyle\sum_i (\log\sigma_i^2 + 1),

which is finite: a bound on the evidence in the strict sense. Its derivatives in q(W) are those of KL(q(W) || N(0, v)) at
:math:`1/v = E_q[1/v(\gamma)]` held fixed, so the model runs with gamma at that point, and what is left is a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyro_vbd.distributions import base_distribution, map_tensors, tensors, unchecked
from pyro_vbd.distributions.interpolation import interpolated, neighbours
from pyro_vbd.distributions.quadrature import Grid, grid
from pyro_vbd.priors.evidence import Evidence

__all__ = ["CollapsedScales", "ExactScale"]

_CHUNK = 20_000  # groups whose nodes are held at once
_TABLE, _SMALL = 1000, 64  # values of S in a table, and how many weights a group has at most for which there is one


class ExactScale(dist.TorchDistribution):
    r"""The exact q(gamma) of groups of weights.

    Args:
        hyperprior: p(gamma), its parameters of shape ``()`` or that of the groups.
        variance: v, the prior variance of a weight, of gamma.
        inverse: gamma of v.
        sum_of_squares: S, of the shape of the groups.
        count: n.
        evidence: :math:`\log Z` and :math:`E[1/v]` in closed form, where they are registered; else by quadrature.

    Where more than 2,000 groups differ in S alone, quadrature is done for 1,000 values of S, and what lies between is
    interpolated, to six digits for groups of at most 64 weights; larger ones are integrated one by one. A hyperprior
    that has few values and lists them (``has_enumerate_support``) is summed over instead. Draws invert the distribution
    function on a grid of 1,000 nodes. No gradient goes through them or the density: in q(W) it vanishes, since q(gamma) is
    optimal.
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(
        self,
        hyperprior: Any,
        variance: Callable[[Tensor], Tensor],
        inverse: Callable[[Tensor], Tensor],
        sum_of_squares: Tensor,
        count: float | Tensor,
        evidence: Evidence | None = None,
    ) -> None:
        self._variance, self._inverse, self._evidence = variance, inverse, evidence
        self._kind = sum_of_squares
        # far below this the quadrature finds no place where the integrand is not 0
        self._total = sum_of_squares.detach().double().clamp_min(torch.finfo(torch.float32).tiny)
        self._count = count.double() if isinstance(count, Tensor) else count
        # validation would compare values of some groups with the shape of all
        self._hyperprior = unchecked(map_tensors(hyperprior, lambda v: v.detach().double()))
        self._solution: tuple[Tensor, Tensor] | None = None
        self._root = self
        super().__init__(sum_of_squares.shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self._hyperprior.support

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """True: the derivative of a bound in q(gamma) vanishes, and a draw passes none on."""
        return True

    def expand(self, batch_shape: Any, _instance: Any = None) -> ExactScale:
        if torch.Size(batch_shape) == self.batch_shape:
            return self
        other = ExactScale.__new__(ExactScale)
        other.__dict__.update(self.__dict__)
        dist.TorchDistribution.__init__(other, torch.Size(batch_shape), validate_args=False)
        return other

    @property
    def point(self) -> Tensor:
        """Gamma at which the prior variance is 1/E[1/v], where the derivatives of the bound are those of a fixed gamma."""
        return self._inverse(1.0 / self.evidence()[1]).to(self._kind).expand(self.batch_shape)

    @property
    def remainder(self) -> Tensor:
        r"""What the bound has beyond the KL of the weights at :attr:`point`, >= 0, without a gradient.

        .. math:: -\log Z + \tfrac n2 \log E[1/v] - \tfrac S2 E[1/v]
        """
        log_z, precision = self.evidence()
        value = 0.5 * self._count * precision.log() - log_z - 0.5 * self._total * precision
        return value.to(self._kind).expand(self.batch_shape)

    @property
    def is_discrete(self) -> bool:
        """Whether gamma has few values, each with a mass, and no density."""
        return bool(self._hyperprior.has_enumerate_support)

    def evidence(self) -> tuple[Tensor, Tensor]:
        """Log Z and E[1/v] of every group, in double precision; before any expansion of the batch shape."""
        if self._root._solution is None:
            self._root._solution = self._root._solve()
        return self._root._solution

    def without_closed_forms(self) -> ExactScale:
        """The same, with log Z and E[1/v] as sums or by quadrature, also where closed forms are registered."""
        return ExactScale(self._hyperprior, self._variance, self._inverse, self._total, self._count)

    @torch.no_grad()
    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return self.quantile(torch.rand(shape, dtype=torch.float64, device=self._kind.device))

    @torch.no_grad()
    def quantile(self, probability: Tensor) -> Tensor:
        """Elementwise, of shape ``probability.shape``, which ends in the batch shape."""
        probability = probability.double()
        if self.is_discrete:
            points, log_mass = self._points()
            points, order = points.sort(0)
            value = points[0].expand(probability.shape)
            for point, below in zip(points[1:], log_mass.gather(0, order).softmax(0).cumsum(0), strict=False):
                value = torch.where(probability > below, point, value)
            return value.to(self._kind)
        copies = [d for d in range(-self._total.dim(), 0) if probability.size(d) != self._total.size(d)]  # of expand
        front = tuple(range(len(copies)))
        by_group = probability.movedim(copies, front)
        flat = by_group.reshape(-1, self._total.numel())
        if self._are_many_alike(self._total.numel()):
            value = self._quantile_between(flat)
        else:
            parts = []
            for where in torch.arange(self._total.numel(), device=self._kind.device).split(_CHUNK // 10):
                curve, transform = self._curve(where, 1000)
                parts.append(transform(curve.quantile(flat[:, where])))
            value = torch.cat(parts, 1)
        return value.reshape(by_group.shape).movedim(front, copies).to(self._kind)

    def log_prob(self, value: Tensor) -> Tensor:
        log_z = self.evidence()[0]
        wide = value.double()
        return (self._hyperprior.log_prob(wide) + self._log_weight(wide) - log_z).to(value)

    def _log_weight(self, gamma: Tensor) -> Tensor:
        variance = self._variance(gamma)
        return -0.5 * (self._count * variance.log() + self._total / variance)

    @torch.no_grad()
    def _solve(self) -> tuple[Tensor, Tensor]:
        if self._evidence is None and self.is_discrete:
            points, log_mass = self._points()
            return log_mass.logsumexp(0), (log_mass.softmax(0) / self._variance(points)).sum(0)
        if self._evidence is None:
            log_z, precision = torch.empty_like(self._total), torch.empty_like(self._total)
            open_ones = torch.arange(self._total.numel(), device=self._total.device)
        else:
            parts = self._evidence(self._hyperprior, self._total, self._count)
            log_z, precision = (part.expand(self._total.shape).clone() for part in parts)
            open_ones = (log_z.isnan() | precision.isnan()).flatten().nonzero().squeeze(1)
        if self._are_many_alike(len(open_ones)):
            log_z.view(-1)[open_ones], precision.view(-1)[open_ones] = self._between(self._total.reshape(-1)[open_ones])
            return log_z, precision
        for where in open_ones.split(_CHUNK):
            curve, transform = self._curve(where, 160)
            log_z.view(-1)[where] = curve.log_integral()
            precision.view(-1)[where] = curve.expectation(-self._variance(transform(curve.x)).log())
        return log_z, precision

    def _are_many_alike(self, groups: int) -> bool:
        """Whether so many groups are worth a table: they differ in S alone, and are small enough for one to follow."""
        is_one = all(value.dim() == 0 for _, value in tensors(self._hyperprior))
        return groups > 2 * _TABLE and is_one and not isinstance(self._count, Tensor) and self._count <= _SMALL

    def _table(self, total: Tensor) -> tuple[Tensor, Tensor, ExactScale]:
        """Log S of some groups, and that of few groups between which they lie, with their posteriors."""
        logs = total.log()
        unit = torch.linspace(0.0, 1.0, _TABLE, dtype=logs.dtype, device=logs.device)
        nodes = logs.min() + (logs.max() - logs.min()) * unit
        return logs, nodes, ExactScale(self._hyperprior, self._variance, self._inverse, nodes.exp(), self._count)

    def _between(self, total: Tensor) -> tuple[Tensor, Tensor]:
        """Log Z and E[1/v] of many groups, as functions of log S."""
        logs, nodes, few = self._table(total)
        log_z, precision = few.evidence()
        log_z, log_precision = interpolated(logs, nodes, log_z, precision.log())
        return log_z, log_precision.exp()

    def _quantile_between(self, probability: Tensor) -> Tensor:
        """Quantiles of many groups, as functions of log S; of shape ``(..., groups)``, as the probabilities."""
        logs, nodes, few = self._table(self._total.flatten())
        curve, transform = few._curve(torch.arange(_TABLE, device=logs.device), 1000)
        quantile, value = curve.quantiles(), torch.zeros_like(probability)
        for number, weight in neighbours(logs, nodes):
            value = value + weight * quantile(probability, number.expand(probability.shape))
        return transform(value)  # type: ignore[no-any-return]

    def _points(self) -> tuple[Tensor, Tensor]:
        """The values of a discrete gamma and the logarithms of their masses times Z, of shape ``(values, *groups)``."""
        listed = self._hyperprior.enumerate_support()
        inner = listed.shape[1:]
        points = listed.reshape(-1, *(1,) * (self._total.dim() - len(inner)), *inner)
        log_mass = self._hyperprior.log_prob(points) + self._log_weight(points)
        return points.expand(log_mass.shape), log_mass

    def _curve(self, where: Tensor, nodes: int) -> tuple[Grid, Any]:
        """The integrand for some of the groups, on gamma's unconstrained space."""
        shape = self._total.shape

        def chosen(value: Tensor) -> Tensor:
            own = value.shape[len(shape) :]  # a parameter that is a vector, as torch's Beta has
            return value if value.dim() == 0 else value.expand(shape + own).reshape(-1, *own)[where]

        total, count = self._total.reshape(-1)[where], self._count
        count = chosen(count) if isinstance(count, Tensor) else count
        hyperprior = map_tensors(self._hyperprior, chosen)
        transform = biject_to(hyperprior.support)

        def log_integrand(x: Tensor) -> Tensor:
            gamma = transform(x)
            variance = self._variance(gamma)
            density = hyperprior.log_prob(gamma) + transform.log_abs_det_jacobian(x, gamma)
            return density - 0.5 * (count * variance.log() + total / variance)

        return grid(log_integrand, total, nodes), transform


class CollapsedScales(Messenger):
    """Inside it a scale with an exact posterior stands at :attr:`ExactScale.point` instead of a draw."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and isinstance(base := base_distribution(msg["fn"]), ExactScale):
            msg["value"], msg["done"] = base.point, True
