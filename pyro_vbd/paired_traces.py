"""One run of guide and model: the guide's draws replayed in the model, and checked to fit each other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import pyro.poutine as poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import unwrap
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_site_shape

from pyro_vbd.exact_scale import CollapsedScales
from pyro_vbd.gaussian_tensor import GaussianTensor
from pyro_vbd.guide import VBDGuide
from pyro_vbd.local_reparam import LocalReparam
from pyro_vbd.parameters import SampleTrace
from pyro_vbd.prototype import latent_sites, sample_sites

__all__ = ["check_pair", "local_sites", "paired_traces"]

_IS_LOCAL = {"local": True, "weights": False}


def local_sites(estimator: str | Mapping[str, str]) -> Callable[[str], bool]:
    """Which sites an estimator samples by local reparameterisation, by name.

    Raises:
        ValueError: for a word other than ``"local"`` and ``"weights"``.
    """
    choices = {"*": estimator} if isinstance(estimator, str) else dict(estimator)
    for word in choices.values():
        if word not in _IS_LOCAL:
            raise ValueError(f"estimator {word!r} is unknown: use 'local' or 'weights'")

    def is_local(site: str) -> bool:
        return next((_IS_LOCAL[word] for pattern, word in choices.items() if fnmatchcase(site, pattern)), True)

    return is_local


def check_pair(model: Callable[..., Any], guide: Callable[..., Any]) -> None:
    """Refuse a guide that was made for another model, seen through Pyro's handlers.

    Raises:
        ValueError: if it was.
    """
    inner = unwrap(guide)
    if isinstance(inner, VBDGuide) and unwrap(inner.model) is not unwrap(model):
        raise ValueError(f"the guide {inner.name} was made for another model: use VBDGuide(model) of the model in hand")


def paired_traces(
    model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any, is_local: Callable[[str], bool]
) -> tuple[poutine.Trace, poutine.Trace]:
    """Traces of the model and of the guide, with the log-probabilities of the observed sites alone.

    Raises:
        RuntimeError: where a weight was stated and never read.
        ValueError: where the model has a latent that the guide does not know, or (while Pyro's validation is on) an
            observed site has a shape that no plate declares.
    """
    with LocalReparam(is_local), CollapsedScales():
        guide_trace = SampleTrace()(guide).get_trace(*args, **kwargs)
    model_trace = SampleTrace()(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    guide_trace, model_trace = prune_subsample_sites(guide_trace), prune_subsample_sites(model_trace)
    _check_latents(model_trace, guide_trace)
    model_trace.compute_log_prob(lambda name, site: site["is_observed"])
    if is_validation_enabled():
        for site in sample_sites(model_trace).values():
            if site["is_observed"]:  # a shape that no plate declares: targets (N, 1) against means (N,), say
                check_site_shape(site, sys.maxsize)
    return model_trace, guide_trace


def _check_latents(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    ours, theirs = latent_sites(guide_trace), latent_sites(model_trace)
    if unknown := sorted(set(theirs) - set(ours)):
        raise ValueError(
            f"the model has the latents {unknown}, which the guide does not know: construct VBDGuide(model, *inputs) with "
            "example inputs, so that it meets them"
        )
    for name, site in ours.items():
        if name not in theirs and not site["infer"].get("is_auxiliary"):
            raise ValueError(f"the guide states {name!r}, which the model did not: a model's latents must not change")
    unread = [name for name, site in ours.items() if isinstance(site["value"], GaussianTensor) and not site["value"].used]
    if unread:
        raise RuntimeError(
            f"the model never read {unread}: a weight without an effect on the output cannot be learned; leave it out by "
            "where=, or use estimator='weights' if it is read at some runs only"
        )
