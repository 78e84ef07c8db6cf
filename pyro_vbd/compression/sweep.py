"""What removal costs: error against ratio over thresholds, without retraining, and the choice of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.counted import counted
from pyro_vbd.distributions import unmasked
from pyro_vbd.guide import VBDGuide
from pyro_vbd.modes import in_mode
from pyro_vbd.placement import moved
from pyro_vbd.prototype import observed_sites, run_with
from pyro_vbd.relevance import masks

__all__ = ["Sweep", "SweepPoint", "point_error", "sweep"]


@dataclass(frozen=True)
class SweepPoint:
    """A threshold on log alpha, and what the network of the posterior means is without the weights beyond it."""

    #: On log alpha.
    threshold: float
    #: Share of wrong classes, or mean squared error.
    error: float
    #: Bayesian weights over those that are kept; infinite where none is.
    ratio: float


@dataclass(frozen=True)
class Sweep:
    """Points in the order of rising thresholds, and the error with nothing removed."""

    #: One for each threshold.
    points: tuple[SweepPoint, ...]
    #: With nothing removed: share of wrong classes, or mean squared error.
    full_error: float

    def pick(self, max_loss: float = 0.0) -> SweepPoint:
        """The point of the highest ratio whose error is above the full network's by at most ``max_loss``.

        The threshold is then chosen on the data of the sweep: let them be validation data, and report another set.

        Args:
            max_loss: in the error's units: 0.001 is a tenth of a percentage point, for a classifier.

        Raises:
            ValueError: if no point of the sweep is that good.
        """
        most = self.full_error + max_loss
        # a point at the limit is good, whatever the sum's last digit
        good = [point for point in self.points if point.error <= most or math.isclose(point.error, most)]
        if not good:
            best = min(point.error for point in self.points)
            raise ValueError(
                f"no threshold keeps the error at {most:.4g}; the lowest is {best:.4g}: allow a "
                "larger max_loss, or sweep higher thresholds"
            )
        return max(good, key=lambda point: (point.ratio, -point.error))


@torch.no_grad()
def sweep(
    model: Callable[..., Any],
    guide: VBDGuide,
    data: Iterable[Any],
    thresholds: Sequence[float] = (-2.0, -1.0, 0.0, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
    *,
    gate_threshold: float | None = 0.0,
    per: str = "weight",
) -> Sweep:
    """The error of the posterior means without the weights beyond each threshold.

    Args:
        model: any Pyro model with one observed site; its targets are read off its distribution.
        guide: its posterior.
        data: batches, as tuples of the model's positional arguments; passed through once for each threshold, and moved to
            the device of the model.
        thresholds: on log alpha; see :func:`~pyro_vbd.masks`.
        gate_threshold: of gates; None lets it move with that of the weights.
        per: see :func:`~pyro_vbd.masks`.

    Raises:
        ValueError: for no thresholds, no data, or more than one observed site.
    """
    if not len(thresholds):
        raise ValueError("thresholds is empty: pass at least one, such as 3.0")
    means = guide.median()
    points = []
    for threshold in sorted(thresholds):
        kept = masks(guide, threshold, threshold if gate_threshold is None else gate_threshold, per=per)
        count = sum(float(mask.sum()) for mask in kept.values())
        ratio = sum(mask.numel() for mask in kept.values()) / count if count else math.inf
        values = {site: value * kept[site] if site in kept else value for site, value in means.items()}
        points.append(SweepPoint(float(threshold), point_error(model, values, data), ratio))
    return Sweep(tuple(points), point_error(model, means, data))


@torch.no_grad()
def point_error(model: Callable[..., Any], values: dict[str, Tensor], data: Iterable[Any]) -> float:
    """The error of a model with its latents at given values, by the distribution of its targets.

    The share of targets that are not the most probable class (of categorical and Bernoulli targets), else the mean
    squared distance from the mean; of those targets that count (:func:`~pyro_vbd.counted.counted`).

    Raises:
        ValueError: for no data, or more than one observed site.
    """
    total, count = 0.0, 0
    with in_mode(model, False):
        for batch in moved(data, model, values):
            observed = list(observed_sites(run_with(values, model, batch, {}, held_out=True)).values())
            if len(observed) != 1:
                raise ValueError(f"the model observes {len(observed)} sites, and an error is of one: pass x and y of it")
            fn, y = unmasked(observed[0]["fn"]), observed[0]["value"]
            if isinstance(fn, dist.Categorical):
                errors = fn.logits.argmax(-1) != y
            elif isinstance(fn, dist.Bernoulli):
                errors = (fn.logits > 0) != (y > 0.5)
            else:
                errors = (fn.mean - y).square()
            errors = errors[counted(observed[0])]
            total += float(errors.sum())
            count += errors.numel()
    if not count:
        raise ValueError("the data gave no batch: pass a data set that is not empty and can be passed through again")
    return total / count
