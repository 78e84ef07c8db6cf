"""A Gaussian whose scale is half Student t."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vbd.distributions import positive
from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.priors.roots import quadratic_root

__all__ = ["HalfStudentT"]


class HalfStudentT(HierarchicalPrior):
    r"""A Gaussian with a half-t scale. A proper prior.

    .. math:: p(\lambda) \propto (1 + \lambda^2/\nu s^2)^{-(\nu + 1)/2}, \qquad W \sim N(0, \lambda^2)

    :math:`\nu = 1` is the :class:`Horseshoe`, :math:`\nu \to \infty` the :class:`HalfNormal`. The density stands on the
    scale, and is bounded. With q(lambda) a delta the optimum is, in :math:`\gamma = \lambda^2` and with
    :math:`T = \nu s^2`, the positive root of :math:`(n + \nu + 1)\gamma^2 - (S - nT)\gamma - ST = 0`.

    Source: Gelman 2006, *Prior distributions for variance parameters in hierarchical models*, section 3.2.

    Args:
        df: :math:`\nu`, degrees of freedom.
        scale: s, in the units of the weight.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, or an unknown ``per``.
    """

    on = "scale"

    def __init__(
        self,
        df: Hyperparameter = 3.0,
        scale: Hyperparameter = 1.0,
        *,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        super().__init__({"df": df, "scale": scale}, per, global_scale)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> positive.HalfStudentT:
        return positive.HalfStudentT(hyperparameters["df"], hyperparameters["scale"], validate_args=False)


@register_optimum(positive.HalfStudentT, "scale")
def half_student_t_scale(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r""":math:`\lambda^*`, the square root of the positive root in :math:`\gamma`; see :class:`HalfStudentT`."""
    unit = hyperprior.df.sqrt() * hyperprior.scale  # the square root of T
    ratio = sum_of_squares / unit.square()
    root = quadratic_root(count + hyperprior.df + 1.0, count - ratio, ratio).sqrt()
    return (unit * root).clamp_min(torch.finfo(ratio.dtype).tiny ** 0.5)
