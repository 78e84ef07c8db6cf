"""Models compared by leave-one-out predictive density, by Pareto-smoothed importance sampling in ArviZ (PSIS-LOO)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np

__all__ = ["GOOD_K", "compare", "leave_one_out", "pointwise", "too_heavy", "verdict"]

#: Beyond it the importance weights of a datum have too heavy a tail for its estimate to be trusted (Vehtari et al. 2024).
GOOD_K = 0.7


def leave_one_out(log_likelihood: Any) -> Any:
    """ArviZ's ``loo`` of pointwise log-likelihoods, of shape ``(chains, draws, data)``, with the Pareto k of each datum.

    Draws of a guide are independent (``reff=1``), and weighed as if it were the posterior.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the k are counted and printed
        groups = {"log_likelihood": {"y": np.asarray(log_likelihood)}}
        data = az.from_dict(groups) if int(az.__version__.split(".")[0]) >= 1 else az.from_dict(**groups)
        return az.loo(data, pointwise=True, reff=1.0)


def pointwise(found: Any) -> np.ndarray:
    """The expected log predictive density of each datum, in nats."""
    values = getattr(found, "loo_i", None)  # ArviZ 1 calls it elpd_i
    return np.asarray(found.elpd_i if values is None else values)


def too_heavy(found: Any) -> np.ndarray:
    """Which data have a Pareto k beyond :data:`GOOD_K`, or none: weights too uneven for a fit are NaN to ArviZ 1."""
    return ~(np.asarray(found.pareto_k) <= GOOD_K)


def compare(estimates: Mapping[str, Any]) -> str:
    """ArviZ's table: the expected log predictive density of each model, and its difference from the best."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(az.compare(dict(estimates)).to_string(float_format=lambda value: f"{value:.4g}"))


def verdict(estimates: Mapping[str, Any]) -> str:
    """Which estimates can be trusted, in words."""
    heavy = {name: too_heavy(found) for name, found in estimates.items()}
    bad = [f"{name} ({found.sum()} of {found.size})" for name, found in heavy.items() if found.any()]
    if not bad:
        return f"Pareto k is below {GOOD_K} throughout."
    return f"UNRELIABLE, with data whose Pareto k exceeds {GOOD_K}: {', '.join(bad)}."
