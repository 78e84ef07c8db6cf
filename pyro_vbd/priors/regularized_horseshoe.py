"""The regularised horseshoe: a horseshoe whose largest weights still meet a Gaussian slab."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Transform, constraints

from pyro_vbd.priors.hyperparameter import Hyperparameter, check_number
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.priors.roots import increasing_root, quadratic_root

__all__ = ["RegularizedHorseshoe", "Slab"]


class Slab(Transform):
    r"""The scale :math:`(\lambda^{-2} + c^{-2})^{-1/2}` of a product of Gaussian densities of scales :math:`\lambda`, c.

    In a model of your own, ``pyro.sample("lam", ..., infer={"link": Slab(c)})`` says that ``Slab(c)(lam)`` is a scale.

    Args:
        scale: c, a positive number.
    """

    domain = constraints.positive
    codomain = constraints.positive
    bijective = True
    sign = +1

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = float(scale)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slab) and self.scale == other.scale

    def __hash__(self) -> int:
        return hash((Slab, self.scale))

    def _call(self, x: Tensor) -> Tensor:
        return x / torch.hypot(x / self.scale, torch.ones_like(x))

    def _inverse(self, y: Tensor) -> Tensor:
        return y / (1.0 - (y / self.scale).square()).clamp_min(torch.finfo(y.dtype).eps).sqrt()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return 3.0 * (y.log() - x.log())


class RegularizedHorseshoe(HierarchicalPrior):
    r"""A Gaussian with a half-Cauchy scale, times a Gaussian slab. A proper prior.

    .. math:: \lambda \sim C^+(0, s), \qquad W \sim N(0, v), \qquad 1/v = 1/\lambda^2 + 1/c^2

    The density stands on :math:`\lambda`, and is bounded. With q(lambda) a delta the optimum is the root of the increasing
    function :math:`n c^2 \gamma/(\gamma + c^2) + 2\gamma^2/(s^2 + \gamma) = S` in :math:`\gamma = \lambda^2`.

    Source: Piironen and Vehtari 2017, *Sparsity information and regularization in the horseshoe and other shrinkage
    priors*, eq. (2.8), with a fixed slab and :math:`\tau` inside s.

    Args:
        scale: s, in the units of the weight.
        slab: c, the scale of the largest weights; a number that is fixed.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: multiplies the scale, that of the slab included; see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, or an unknown ``per``.
    """

    on = "scale"

    def __init__(
        self,
        scale: Hyperparameter = 1.0,
        slab: float = 2.0,
        *,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        super().__init__({"scale": scale}, per, global_scale)
        check_number("RegularizedHorseshoe", "slab", slab)
        self.slab = float(slab)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.HalfCauchy:
        return dist.HalfCauchy(hyperparameters["scale"], validate_args=False)

    def link(self) -> Slab:
        return Slab(self.slab)

    def arguments(self) -> dict[str, Any]:
        return {"slab": self.slab, **super().arguments()}


@register_optimum(dist.HalfCauchy, "scale", link=Slab)
def half_cauchy_under_slab(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor, link: Slab) -> Tensor:
    r""":math:`\lambda^*`; see :class:`RegularizedHorseshoe`."""
    tiny = torch.finfo(sum_of_squares.dtype).tiny
    square, slab, total = hyperprior.scale.square(), link.scale**2, sum_of_squares.clamp_min(tiny)
    count = torch.as_tensor(count).to(total)

    def second_term_is(part: Tensor) -> Tensor:  # 2 g^2/(s^2 + g) = part
        return quadratic_root(2.0, -part, part * square)

    def first_term_is(part: Tensor) -> Tensor:  # n c^2 g/(g + c^2) = part, infinite where it never is
        room = count * slab - part
        return torch.where(room > 0, part * slab / room, torch.inf)

    # both terms are at most S, and one of them is at least half of it
    high = torch.minimum(second_term_is(total), first_term_is(total))
    low = torch.minimum(second_term_is(0.5 * total), first_term_is(0.5 * total))

    def difference(log_gamma: Tensor) -> Tensor:
        gamma = log_gamma.exp()
        return count * slab * (gamma / (gamma + slab)) + 2.0 * gamma * (gamma / (square + gamma)) - total

    return increasing_root(difference, low.clamp_min(tiny), high.clamp_min(tiny)).sqrt().clamp_min(tiny**0.5)
