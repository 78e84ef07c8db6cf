"""Many draws of a guide in one run of the model: in a plate to the left of the model's own, where that gives the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, final

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor

from pyro_vbd.prototype import latent_sites, run_with, sample_sites

__all__ = ["DrawPlate", "Traces", "data_frames"]

#: Of the guide, and of the model under its draws.
Traces = tuple[poutine.Trace, poutine.Trace]

# Pyro's plate of particles: guides and networks know that its dimension is not one of the data.
_NAME = "num_particles_vectorized"


def data_frames(site: Any, count: int | None) -> list[Any]:
    """The frames of the plates that could tell ``count`` data of a site apart."""
    frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.size == count]
    return [f for f in frames if f.full_size not in (None, f.size)] or frames  # a subsampled one is of the data


@final
class DrawPlate:
    """Runs of a guide and of the model under its draws.

    Args:
        model: a Pyro model.
        guide: its posterior.
        first: traces of a run of one draw, whose plates say where there is room for another.
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any], first: Traces) -> None:
        self._model, self._guide = model, guide
        frames = [f for trace in first for site in sample_sites(trace).values() for f in site["cond_indep_stack"]]
        self._dim = -1 - max((-frame.dim for frame in frames if frame.vectorized), default=0)
        self._shapes = {name: site["value"].shape for name, site in latent_sites(first[0]).items()}

    def run(
        self,
        args: tuple[Any, ...],
        count: int | None,
        guide_trace: poutine.Trace | None = None,
        model: Callable[..., Any] | None = None,
    ) -> Traces:
        """Traces under ``count`` draws at once, or under one without a plate.

        Args:
            args: inputs of both.
            count: draws in the plate; None for one outside of it.
            guide_trace: of earlier draws, as many, to use in place of new ones.
            model: to run in place of the model.
        """
        with nullcontext() if count is None else pyro.plate(_NAME, count, dim=self._dim):
            if guide_trace is None:
                guide_trace = poutine.trace(self._guide).get_trace(*args)
            return guide_trace, poutine.trace(poutine.replay(model or self._model, trace=guide_trace)).get_trace(*args)

    def is_right(
        self, args: tuple[Any, ...], numbers: Callable[[Traces, int | None], Sequence[Tensor]], rtol: float, atol: float
    ) -> bool:
        """Whether two draws at once give the numbers that they give one after the other.

        Args:
            args: inputs of both.
            numbers: of a run of ``count`` draws, each of shape ``(count, ...)``; ``(1, ...)`` of one outside of the plate.
            rtol: of the comparison.
            atol: of the comparison.
        """
        try:
            with warnings.catch_warnings(action="ignore"):
                guide_trace, model_trace = self.run(args, 2)
                both = numbers((guide_trace, model_trace), 2)
                sites = latent_sites(guide_trace)
                for draw in range(2):
                    values = {name: sites[name]["value"].reshape(2, *shape)[draw] for name, shape in self._shapes.items()}
                    alone = numbers((guide_trace, run_with(values, self._model, args, {})), None)
                    for several, one in zip(both, alone, strict=True):
                        torch.testing.assert_close(several[draw], one[0], rtol=rtol, atol=atol, equal_nan=True)
        except Exception:  # whatever a user's code raises: one draw at a time does without all this
            return False
        return True
