"""Whether a hand-written model can run on many draws of its latents at once, and the plates in which it is asked to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from pyro_vbd.prototype import observed_sites, sample_sites

__all__ = ["DRAWS_PLATES", "broadcasting_faults", "open_draws_plate"]

# Predictive counts the event dimensions of a draw as if they were the plates', a vectorised ELBO does not.
_COUNTS_EVENTS = {"_num_predictive_samples": True, "num_particles_vectorized": False}

#: Pyro's plates of predictive draws and of particles: there the leading dimension of a latent is not of the data.
DRAWS_PLATES = tuple(_COUNTS_EVENTS)


def open_draws_plate() -> str | None:
    """The name of the plate of predictive draws or of particles that is open now, if any."""
    names = (frame.name for frame in _PYRO_STACK if isinstance(frame, IndepMessenger))
    return next((name for name in names if name in DRAWS_PLATES), None)


@torch.no_grad()
def broadcasting_faults(
    model: Callable[..., Any], draws: Mapping[str, Tensor], trace: poutine.Trace, args: Any, kwargs: Any
) -> dict[str | None, str]:
    """Run a model on a few draws of its latents at once, laid out as Pyro lays them out in each of its plates.

    Args:
        model: the model.
        draws: draws by site, of shape ``(S, *site shape)``.
        trace: an ordinary run of the model.
        args: the model's positional arguments.
        kwargs: the model's keyword arguments.

    Returns:
        For each of ``DRAWS_PLATES`` in which the model does not broadcast, a sentence that says so.
    """
    plates = {f.name: f.dim for site in sample_sites(trace).values() for f in site["cond_indep_stack"] if f.vectorized}
    nesting = max((-dim for dim in plates.values()), default=0)
    count = len(next(iter(draws.values())))
    faults: dict[str | None, str] = {}
    for plate, counts_events in _COUNTS_EVENTS.items():
        values = {}
        for site, value in draws.items():
            shape = value.shape[1:]
            fn: Any = trace.nodes[site]["fn"]
            taken = len(shape) - (0 if counts_events else fn.event_dim)
            values[site] = value.reshape(value.shape[:1] + (1,) * (nesting - taken) + shape)
        try:
            with poutine.block(), pyro.validation_enabled(True), warnings.catch_warnings(action="ignore"):
                together = poutine.trace(poutine.condition(model, values)).get_trace(*args, **kwargs)
            several = observed_sites(together)
            for name, target in observed_sites(trace).items():
                if target["value"].numel():  # a factor has none
                    _check_batch(name, several[name]["fn"].batch_shape, target["fn"].batch_shape, count, nesting)
        except Exception as error:  # whatever a user's code raises; it is told only if the model is asked for this
            site, value = next(iter(values.items()))
            reason = (str(error) or repr(error)).splitlines()[0]
            faults[plate] = (
                "the model does not broadcast over draws of its latents, which have more dimensions on their left: use "
                "parallel=False (Predictive) or vectorize_particles=False (VBD_ELBO), or write x @ w as (x * w).sum(-1) "
                f"with room for it; on {site!r} of shape {tuple(value.shape)} it failed: {reason}"
            )
    return faults


def _check_batch(site: str, several: torch.Size, one: torch.Size, draws: int, nesting: int) -> None:
    """Refuse draws that stand among the dimensions of the data: a plate to their left would repeat the data for each."""
    right = torch.Size((draws, *(1,) * (nesting - len(one)), *one))
    if torch.broadcast_shapes(several, right) != right:
        raise ValueError(f"{site!r} has batch shape {tuple(several)} instead of {tuple(right)}")
