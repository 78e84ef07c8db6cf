"""A Gaussian around 0 that is known to be one: what weights are under a prior on their variance."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import lazy_property

__all__ = ["CentredNormal"]


class CentredNormal(dist.Normal):
    """N(0, v), a Normal whose mean is known to be 0 without a look at it, and whose variance is at hand.

    Args:
        variance: v, of the batch shape.
        validate_args: whether v and the values are looked at; not by default, since a weight's prior is made at every step.
        loc: 0; given, with ``scale``, by those who take a Normal apart and build another (``LocScaleReparam``).
        scale: a standard deviation that replaces ``variance``.
    """

    arg_constraints = {"variance": constraints.positive}
    variance: Any = None  # an attribute here, where Normal has a property

    def __init__(
        self,
        variance: Tensor,
        validate_args: bool | None = None,
        *,
        loc: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> None:
        self.variance = variance if scale is None else scale.square()
        Distribution.__init__(self, self.variance.shape, validate_args=bool(validate_args))

    @lazy_property
    def loc(self) -> Tensor:  # type: ignore[override]
        """Zeros, of the batch shape."""
        return self.variance.new_zeros(()).expand(self.batch_shape)

    @lazy_property
    def scale(self) -> Tensor:  # type: ignore[override]
        """The standard deviation."""
        return self.variance.sqrt()

    @property
    def stddev(self) -> Tensor:
        return self.scale

    def expand(self, batch_shape: Any, _instance: Any = None) -> CentredNormal:
        return CentredNormal(self.variance.expand(batch_shape), validate_args=self._validate_args)
