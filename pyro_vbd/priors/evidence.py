r"""Registry of what the exact posterior of a scale needs in closed form, one entry for a hyperprior and what it stands on.

With q(W) fixed, the best q(gamma) of all is not a delta but

.. math:: q(\gamma) = \frac{1}{Z}\, p(\gamma)\, v(\gamma)^{-n/2} e^{-S/2v(\gamma)},
          \qquad Z = \int p(\gamma)\, v(\gamma)^{-n/2} e^{-S/2v(\gamma)} d\gamma,

and with it the KL of a group, :math:`-\log Z - \tfrac12 \sum_i (\log\sigma_i^2 + 1)`, is finite. An entry gives
:math:`\log Z` and :math:`E_q[1/v]`; where there is none, both are found by quadrature, or by a sum over the values of a
hyperprior that lists them (``has_enumerate_support``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vbd.priors.prior import POWERS

__all__ = ["Evidence", "conjugate_evidence", "find_evidence", "register_evidence"]

#: ``evidence(hyperprior, sum_of_squares, count) -> (log Z, E[1/v])``, elementwise over groups, in float64.
Evidence = Callable[[Any, Tensor, Any], tuple[Tensor, Tensor]]

_EVIDENCE: dict[tuple[type[Distribution], str], Evidence] = {}


def register_evidence(hyperprior: type[Distribution], on: str) -> Callable[[Evidence], Evidence]:
    """Decorator that registers log Z and E[1/v] for a hyperprior type and what it stands on.

    Args:
        hyperprior: a distribution class; its subclasses inherit the entry.
        on: ``"variance"``, ``"scale"`` or ``"precision"``.

    The function receives the hyperprior, S and n in float64. Where it returns NaN for a group, quadrature takes its place.

    Raises:
        ValueError: if ``on`` is none of the three.
    """
    if on not in POWERS:
        raise ValueError(f"on={on!r} is not one of {', '.join(POWERS)}: say what the density of gamma stands on")

    def register(evidence: Evidence) -> Evidence:
        _EVIDENCE[hyperprior, on] = evidence
        return evidence

    return register


def find_evidence(hyperprior: type[Distribution], on: str) -> Evidence | None:
    """The entry of the nearest registered base class of ``hyperprior``, or None."""
    entries = (_EVIDENCE.get((base, on)) for base in hyperprior.__mro__)
    return next((entry for entry in entries if entry is not None), None)


def conjugate_evidence(a: Tensor, b: Tensor, sum_of_squares: Tensor, count: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""For a precision that is Gamma(a, b): :math:`Z = \frac{b^a}{\Gamma(a)} \Gamma(a') b'^{-a'}`, :math:`E[1/v] = a'/b'`.

    Here :math:`a' = a + n/2` and :math:`b' = b + S/2`.
    """
    shape, rate = a + 0.5 * count, b + 0.5 * sum_of_squares
    log_z = a * b.log() - torch.lgamma(a) + torch.lgamma(shape) - shape * rate.log()
    return log_z, shape / rate
