"""Which of the observed targets count: not those under a mask, nor those that a likelihood ignores."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.distributions import base_distribution

__all__ = ["counted"]


def counted(site: Any) -> Tensor:
    """Whether each element of an observed value counts in the likelihood; of the value's shape.

    Those do not that stand under ``poutine.mask`` or a distribution's ``mask``, or are a likelihood's ``ignore_index``.

    Args:
        site: of a trace.
    """
    fn, value = site["fn"], site["value"]
    found = torch.ones_like(value, dtype=torch.bool)
    if site["mask"] is not None:
        found = found & _elementwise(site["mask"], fn, value)
    while isinstance(part := base_distribution(fn), dist.MaskedDistribution):
        found, fn = found & _elementwise(part._mask, part, value), part.base_dist
    ignored = getattr(part, "ignore_index", None)
    return found if ignored is None else found & (value != ignored)


def _elementwise(mask: Any, fn: Any, value: Tensor) -> Tensor:
    """A mask of a distribution's batch, or one truth value, for each element of the value."""
    wide = torch.as_tensor(mask, device=value.device).expand(fn.batch_shape)
    return wide.reshape(fn.batch_shape + (1,) * (value.dim() - wide.dim())).bool()
