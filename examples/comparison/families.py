"""The priors that can be compared, by name: one line each."""

from __future__ import annotations

from collections.abc import Callable

from pyro_vbd import priors

__all__ = ["DEFAULT", "FAMILIES"]

#: A constructor without arguments; None stands for the likelihood alone, without any prior.
FAMILIES: dict[str, Callable[[], priors.Prior] | None] = {
    "vbd": priors.GaussianUniform,
    "vd": priors.LogUniform,
    "gaussian": priors.Gaussian,
    "horseshoe": priors.Horseshoe,
    "regularized-horseshoe": priors.RegularizedHorseshoe,
    "half-t": priors.HalfStudentT,
    "half-normal": priors.HalfNormal,
    "pc": priors.PCPrior,
    "laplace": priors.Laplace,
    "normal-gamma": lambda: priors.NormalGamma(2.0, 0.5),
    "gig": priors.GeneralizedInverseGaussian,
    "beta-prime": priors.BetaPrime,
    "student-t": priors.StudentT,
    "gamma-precision": priors.GammaPrecision,
    "jeffreys": priors.Jeffreys,
    "spike-and-slab": priors.SpikeAndSlab,
    "deterministic": None,
}

#: What is compared when nothing else is asked for.
DEFAULT = ["vbd", "vd", "horseshoe", "gaussian", "deterministic"]
