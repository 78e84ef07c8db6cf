"""Whether a hand-written model can run on many draws of its latents at once, and the plates in which it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

__all__ = ["DRAWS_PLATES", "broadcasting_fault", "open_draws_plate"]

# Predictive counts the event dimensions of a draw as if they were the plates', a vectorised ELBO does not.
_COUNTS_EVENTS = {"_num_predictive_samples": True, "num_particles_vectorized": False}

#: Pyro's plates of predictive draws and of particles: there the leading dimension of a latent is not of the data.
DRAWS_PLATES = tuple(_COUNTS_EVENTS)


def open_draws_plate() -> str | None:
    """The name of the plate of predictive draws or of particles that is open now, if any."""
    names = (frame.name for frame in _PYRO_STACK if isinstance(frame, IndepMessenger))
    return next((name for name in names if name in DRAWS_PLATES), None)


@torch.no_grad()
def broadcasting_fault(
    model: Callable[..., Any],
    draws: Mapping[str, Tensor],
    event_dims: Mapping[str, int],
    max_plate_nesting: int,
    plate: str,
    args: Any,
    kwargs: Any,
) -> str | None:
    """Run a model once on a few draws of its latents, laid out as Pyro lays them out in one of its plates.

    Args:
        model: the model.
        draws: draws by site, of shape ``(S, *site shape)``.
        event_dims: how many of a site's dimensions are its event's.
        max_plate_nesting: how deep the model's own plates are nested.
        plate: one of ``DRAWS_PLATES``.
        args: the model's positional arguments.
        kwargs: the model's keyword arguments.

    Returns:
        A sentence that says what went wrong, or None where the model broadcasts.
    """
    values = {}
    for site, value in draws.items():
        shape = value.shape[1:]
        taken = len(shape) - (0 if _COUNTS_EVENTS[plate] else event_dims[site])
        values[site] = value.reshape(value.shape[:1] + (1,) * (max_plate_nesting - taken) + shape)
    try:
        with poutine.block(), pyro.validation_enabled(True):
            poutine.trace(poutine.condition(model, values)).get_trace(*args, **kwargs)
    except (RuntimeError, ValueError, IndexError) as error:
        site, value = next(iter(values.items()))
        return (
            "the model does not broadcast over draws of its latents, which come with more dimensions on their left: use "
            "parallel=False (Predictive) or vectorize_particles=False (VBD_ELBO), or write x @ w as (x * w).sum(-1) with "
            f"room for it; on {site!r} of shape {tuple(value.shape)} it failed with: {str(error).splitlines()[0]}"
        )
    return None
