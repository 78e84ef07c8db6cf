"""The priors that can be compared, by name: one line each."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist

from pyro_vbd import priors

__all__ = ["DEFAULT", "FAMILIES"]

#: A constructor without arguments; None stands for the likelihood alone, without any prior.
FAMILIES: dict[str, Callable[[], priors.Prior] | None] = {
    "vbd": priors.GaussianUniform,
    "vd": priors.LogUniform,
    "gaussian": priors.Gaussian,
    "half-cauchy": lambda: priors.ScaleMixture(dist.HalfCauchy(1.0), on="scale"),
    "deterministic": None,
}

#: What is compared when nothing else is asked for.
DEFAULT = ["vbd", "vd", "half-cauchy", "gaussian", "deterministic"]
