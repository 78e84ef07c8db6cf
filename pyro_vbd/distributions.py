"""A Gaussian around 0, and looks inside any distribution: what ``to_event`` wraps, and the tensors that it holds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, Transform, constraints, transform_to
from torch.distributions.transforms import _InverseTransform
from torch.distributions.utils import lazy_property

__all__ = ["CentredNormal", "base_distribution", "is_positive", "map_tensors", "tensors"]


class CentredNormal(dist.Normal):
    """N(0, v), a Normal whose mean is known to be 0 without a look at it, and whose variance is at hand.

    Args:
        variance: v, of the batch shape.
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
        Distribution.__init__(self, self.variance.shape, validate_args=False)

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
        return CentredNormal(self.variance.expand(batch_shape))


_INVERSE = "_inv"  # where a transform keeps its inverse, which keeps it in turn

D = TypeVar("D", bound=Distribution | Transform)


def base_distribution(fn: Any) -> Any:
    """The distribution behind ``expand`` and ``to_event``."""
    while isinstance(fn, Independent | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def is_positive(fn: Any) -> bool:
    """Whether a distribution is of one continuous number whose support holds no negative ones, seen by its bijection."""
    base = base_distribution(fn)
    if base.event_shape or base.support.is_discrete:
        return False
    like = next((value for _, value in tensors(base)), torch.zeros(()))
    probe = torch.linspace(-8.0, 8.0, 9, dtype=like.dtype, device=like.device)
    probe = probe.reshape((9,) + (1,) * len(base.batch_shape))
    return bool((transform_to(base.support)(probe) >= 0).all())


def tensors(fn: Distribution | Transform) -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors that a distribution is made of, by attribute, with those of what is inside it."""
    if isinstance(fn, _InverseTransform):
        fn = fn.inv
    for name, value in vars(fn).items():
        if name == _INVERSE:
            continue
        for part in value if isinstance(value, list) else (value,):
            if isinstance(part, Distribution | Transform):
                yield from tensors(part)
            elif isinstance(part, Tensor) and part.is_floating_point():
                yield name, part


def map_tensors(fn: D, function: Callable[[Tensor], Tensor]) -> D:
    """The same distribution with ``function`` applied to each of :func:`tensors`."""

    def mapped_part(value: Any) -> Any:
        if isinstance(value, list):
            return [mapped_part(part) for part in value]
        if isinstance(value, Distribution | Transform):
            return map_tensors(value, function)
        return function(value) if isinstance(value, Tensor) and value.is_floating_point() else value

    if isinstance(fn, _InverseTransform):
        return map_tensors(fn.inv, function).inv  # type: ignore[return-value]
    mapped = copy.copy(fn)
    for name, value in vars(fn).items():
        vars(mapped)[name] = None if name == _INVERSE else mapped_part(value)
    return mapped
