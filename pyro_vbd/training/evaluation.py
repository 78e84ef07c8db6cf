"""The likelihood of held-out data at the posterior medians: one run of the model a batch, without noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.distributions.util import scale_and_mask

from pyro_vbd.counted import counted
from pyro_vbd.guide import VBDGuide
from pyro_vbd.modes import in_mode
from pyro_vbd.placement import moved
from pyro_vbd.prototype import observed_sites, run_with

__all__ = ["mean_loss", "negative_log_likelihood", "summed_negative_log_likelihood"]


def negative_log_likelihood(model: Callable[..., Any], guide: VBDGuide, data: Iterable[Any]) -> float:
    """Mean over data of -log p(y | x) at the posterior medians, in nats, not scaled by any plate.

    Data that do not count in training (under a mask, or with no target but ``ignore_index``) do not count here.

    Args:
        model: a Pyro model.
        guide: its posterior.
        data: batches, as tuples of the model's positional arguments, brought to where model and guide are.

    Raises:
        ValueError: if there are no data, or (while Pyro's validation is on) inputs or targets that the model refuses.
    """
    return mean_loss(*summed_negative_log_likelihood(model, guide, data))


def mean_loss(total: float, count: float) -> float:
    """A mean over data.

    Raises:
        ValueError: if there are none.
    """
    if not count:
        raise ValueError(
            "the validation data gave no batch with a target that counts: pass batches of inputs and targets, not empty"
        )
    return total / count


@torch.no_grad()
def summed_negative_log_likelihood(model: Callable[..., Any], guide: VBDGuide, data: Iterable[Any]) -> tuple[float, int]:
    """The sum over data of what :func:`negative_log_likelihood` is the mean of, and the number of data."""
    total, count = 0.0, 0
    medians = None
    with in_mode(model, False), in_mode(guide, False), poutine.block():
        for batch in moved(data, model, guide):
            medians = guide.median(*batch) if medians is None else medians
            for site in observed_sites(run_with(medians, model, batch, {}, held_out=True)).values():
                log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
                total -= float(log_prob.sum())
                count += int(counted(site).reshape(*log_prob.shape, -1).any(-1).sum())
    return total, count
