"""Looks inside any distribution: what ``expand`` and ``to_event`` wrap, and the tensors that it holds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, Transform, transform_to
from torch.distributions.transforms import _InverseTransform

__all__ = ["base_distribution", "is_positive", "map_tensors", "tensors", "unchecked", "unmasked"]


_INVERSE = "_inv"  # where a transform keeps its inverse, which keeps it in turn

D = TypeVar("D", bound=Distribution | Transform)


def base_distribution(fn: Any) -> Any:
    """The distribution behind ``expand`` and ``to_event``."""
    while isinstance(fn, Independent | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def unchecked(fn: Any) -> Any:
    """The same distribution, and those inside it, without validation of values or of their shape."""
    free = copy.copy(fn)
    parts = {name: unchecked(part) for name, part in vars(fn).items() if isinstance(part, Distribution)}
    vars(free).update(parts, _validate_args=False)
    return free


def unmasked(fn: Any) -> Any:
    """The distribution behind ``expand``, ``to_event`` and ``mask``, which says what counts in training, and no more."""
    while isinstance(fn := base_distribution(fn), MaskedDistribution):
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
