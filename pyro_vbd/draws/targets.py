"""The distribution of a model's targets under draws of its guide: many draws in one run where the model broadcasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pyro_vbd.distributions import base_distribution, unmasked
from pyro_vbd.draws.plate import DrawPlate, Traces, data_frames
from pyro_vbd.inputs import length
from pyro_vbd.posterior.exact_scale import CollapsedScales
from pyro_vbd.prototype import latent_sites
from pyro_vbd.target_checks import check_inputs

__all__ = ["TargetDraws", "is_of_classes"]

# Random values of latents in one run, over all its draws: 16 MB of float32, beyond which a CPU is slower.
_MAX_LATENTS = 2**22
# Draws in one run from which it pays to find out, by three runs more, whether the model broadcasts.
_WORTHWHILE = 8


class TargetDraws:
    """A model, its guide, and the site of the targets.

    Args:
        model: a Pyro model that takes the inputs alone, and then draws the targets.
        guide: its posterior.
        site: name of the targets' site; None where the model draws one alone.
        at_once: data times draws in one run of the model.
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any], site: str | None, at_once: int) -> None:
        self._model, self._guide, self._site, self._at_once = model, guide, site, at_once
        self._broadcasts: bool | None = None  # not known yet
        self._axes: dict[int, str] | None = None  # of plates as long as each of the inputs so far, with their names

    def __call__(self, x: Any, num_samples: int) -> Iterator[tuple[int, Any]]:
        """The univariate distributions of the targets, with the number of draws in each: 1, and then several.

        Where there are several, they stand in front: the mean, say, reshapes to ``(draws, *shape of the first's mean)``.

        Raises:
            ValueError: for inputs that are not finite, while Pyro's validation is on, or targets that are not clear, or
                have no mean and variance.
        """
        check_inputs(x)
        with _unseen():
            draw = poutine.trace(self._guide).get_trace(x)
            single = draw, poutine.trace(poutine.replay(self._model, trace=draw)).get_trace(x)
        self._look_at_plates(self._site_of_targets(*single), length(x))
        first = self._target(*single)
        _check_statistics(first)
        yield 1, first
        plate = DrawPlate(self._model, self._guide, single)
        together = min(self._room(draw, x), num_samples - 1)
        with _unseen():
            if self._broadcasts is None and together >= _WORTHWHILE:
                self._broadcasts = self._try(plate, x, first)
        step = together if self._broadcasts and together > 1 else 1
        for start in range(1, num_samples, step):
            count = min(step, num_samples - start)
            with _unseen():
                traces = plate.run((x,), count if step > 1 else None)
            yield count, self._target(*traces)

    def data_axis(self) -> int:
        """The dimension of the data in the distribution under one draw, by the plates under all inputs so far; else 0.

        Raises:
            ValueError: where two plates are as long as the inputs were each time.
        """
        axes = self._axes or {0: ""}
        if len(axes) > 1:
            raise ValueError(
                f"the targets stand in the plates {sorted(axes.values())}, each as long as a batch, and nothing tells "
                "which is that of the data: use batches of another size (batch_size=)"
            )
        return next(iter(axes))

    def _look_at_plates(self, site: Any, count: int | None) -> None:
        axes = {len(site["fn"].batch_shape) + frame.dim: frame.name for frame in data_frames(site, count)}
        self._axes = axes if self._axes is None else {axis: axes[axis] for axis in self._axes if axis in axes}

    def _room(self, draw: poutine.Trace, x: Any) -> int:
        """How many draws go into one run."""
        sizes = [len(leaf) for leaf in tree_leaves(x) if isinstance(leaf, Tensor) and leaf.dim()]
        random = [site for site in latent_sites(draw).values() if not isinstance(base_distribution(site["fn"]), dist.Delta)]
        latents = sum(site["value"].numel() for site in random)
        return min(self._at_once // max([1, *sizes]), _MAX_LATENTS // max(latents, 1))

    def _target(self, draw: poutine.Trace, trace: poutine.Trace) -> Any:
        return unmasked(self._site_of_targets(draw, trace)["fn"])

    def _site_of_targets(self, draw: poutine.Trace, trace: poutine.Trace) -> Any:
        unknown = {name: node for name, node in latent_sites(trace).items() if name not in draw}
        chosen = self._site if self._site is not None else next(iter(unknown), None)
        if chosen not in unknown or (self._site is None and len(unknown) > 1):
            raise ValueError(
                f"the targets of the model are not clear: it draws {sorted(unknown)} beyond the guide's latents; name one "
                "by site=, and let the model draw it where y is None"
            )
        return unknown[chosen]

    def _try(self, plate: DrawPlate, x: Any, first: Any) -> bool:
        """Whether two draws at once give what they give one after the other."""
        shapes = [value.shape for value in _statistics(first)]

        def numbers(traces: Traces, count: int | None) -> list[Tensor]:
            values = _statistics(self._target(*traces))
            return [value.reshape(count or 1, *shape) for value, shape in zip(values, shapes, strict=True)]

        return plate.is_right((x,), numbers, rtol=1e-3, atol=1e-5)


@contextmanager
def _unseen() -> Iterator[None]:
    # targets depend on the weights alone: their scales need not be drawn
    with poutine.block(), CollapsedScales(), pyro.validation_enabled(False):
        yield


def is_of_classes(fn: Any) -> bool:
    """Whether the targets are classes, or a yes or no."""
    return isinstance(fn, dist.Categorical | dist.Bernoulli)


def _statistics(fn: Any) -> tuple[Tensor, ...]:
    """What a prediction is made of."""
    return (fn.probs,) if is_of_classes(fn) else (fn.mean, fn.variance)


def _check_statistics(fn: Any) -> None:
    try:
        _statistics(fn)
    except NotImplementedError as error:
        raise ValueError(
            f"the {type(fn).__name__} of the targets has no mean or no variance: give it both as properties, or draw "
            "targets by pyro.infer.Predictive(model, guide=guide, num_samples=100)(x)"
        ) from error
