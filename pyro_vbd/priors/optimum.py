r"""Registry of the closed-form optimum of a scale, one entry for each (hyperprior, what it stands on).

With q(gamma) a delta and q(W) fixed, the terms of the loss that hold the gamma of a group of n weights are, in the
prior's variance v(gamma),

.. math:: J(\gamma) = \tfrac{n}{2} \log v(\gamma) + \frac{S}{2 v(\gamma)} - \log p(\gamma),
          \qquad S = \sum_i \theta_i^2 + \sigma_i^2,

eqs. (14) and (15) of Liu et al. 2019 for a group. A guide that finds an entry puts gamma at its minimiser at every step;
where there is none, gamma is a learned parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.distributions import Distribution, Transform

from pyro_vbd.priors.prior import POWERS

__all__ = ["Optimum", "find_optimum", "register_optimum"]

#: ``optimum(hyperprior, sum_of_squares, count) -> gamma``, elementwise over groups, in gamma's own coordinates.
Optimum = Callable[[Any, Tensor, Any], Tensor]

_OPTIMA: dict[tuple[type[Distribution], str, type[Transform] | None], Callable[..., Tensor]] = {}


def register_optimum(
    hyperprior: type[Distribution], on: str, link: type[Transform] | None = None
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorator that registers the minimiser of J for a hyperprior type and what it stands on.

    Args:
        hyperprior: a distribution class; its subclasses inherit the entry.
        on: ``"variance"``, ``"scale"`` or ``"precision"``.
        link: class of the transform of gamma that takes gamma's place, where there is one (``infer={"link": ...}``).

    The function receives the hyperprior (its parameters broadcast against the groups), S (shape of the groups) and n, and
    the link as the keyword ``link`` where there is one; it returns gamma inside the hyperprior's support, finite and
    positive for every S >= 0.

    Raises:
        ValueError: if ``on`` is none of the three.
    """
    if on not in POWERS:
        raise ValueError(f"on={on!r} is not one of {', '.join(POWERS)}: say what the density of gamma stands on")

    def register(optimum: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _OPTIMA[hyperprior, on, link] = optimum
        return optimum

    return register


def find_optimum(hyperprior: type[Distribution], on: str, link: Transform | None = None) -> Optimum | None:
    """The entry of the nearest registered base class of ``hyperprior``, or None."""
    kind = None if link is None else type(link)
    entries = (_OPTIMA.get((base, on, kind)) for base in hyperprior.__mro__)
    found = next((entry for entry in entries if entry is not None), None)
    return found if found is None or link is None else functools.partial(found, link=link)
