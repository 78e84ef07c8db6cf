"""Which models a guide can be the posterior of: those of continuous latents that all data share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_inferable"]


def check_inferable(sites: Mapping[str, Any], with_observed: Mapping[str, Any]) -> None:
    """Refuse a model that has nothing to infer, a discrete latent, one without elements, or a latent for each datum.

    Args:
        sites: the latent sites of a trace, by name.
        with_observed: those and the observed ones.

    Raises:
        ValueError: for such a model, with the site and what to do.
    """
    if not sites:
        raise ValueError("the model has nothing to infer: no pyro.sample statement without obs; give a weight a prior")
    plates = {f.name for s in with_observed.values() if s["is_observed"] for f in s["cond_indep_stack"]}
    for name, site in sites.items():
        if site["fn"].support.is_discrete:
            raise ValueError(
                f"site {name!r} is a discrete latent, and VBDGuide infers continuous ones: pass the data when the guide "
                "runs for the first time if it is the observation, or enumerate it "
                f"(poutine.block(model, hide=[{name!r}]) for the guide, and TraceEnum_ELBO)"
            )
        if not site["value"].numel():
            raise ValueError(
                f"site {name!r} has shape {tuple(site['value'].shape)} and no element to infer: leave it out of the model "
                "(of a network's weights, by where=)"
            )
        for frame in site["cond_indep_stack"]:
            subsampled = frame.full_size is not None and frame.full_size != frame.size
            if subsampled or (frame.name in plates and site["fn"].event_dim > 1):
                raise ValueError(
                    f"site {name!r} is drawn inside the plate {frame.name!r}, once for each datum: draw a weight before "
                    "the plate, and pass the data when the guide runs for the first time"
                )
