"""One run of guide and model: the guide's draws replayed in the model, and checked to fit each other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import Any

import pyro.poutine as poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import unwrap
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_site_shape

from pyro_vbd.estimators.by_cost import ByCostTensor
from pyro_vbd.estimators.flipout import FlipoutTensor
from pyro_vbd.estimators.gaussian_tensor import GaussianTensor
from pyro_vbd.estimators.local_reparam import LocalReparam
from pyro_vbd.guide import VBDGuide
from pyro_vbd.parameters import SampleTrace
from pyro_vbd.posterior.exact_scale import CollapsedScales
from pyro_vbd.prototype import latent_sites, observed_sites
from pyro_vbd.site_patterns import first_match

__all__ = ["check_pair", "estimator_by_site", "paired_traces"]

#: What a Gaussian site becomes, by estimator: a tensor that is sampled where it is used; or a draw.
_TENSORS: Mapping[str, type[GaussianTensor] | None] = MappingProxyType(
    {"auto": ByCostTensor, "local": GaussianTensor, "flipout": FlipoutTensor, "weights": None}
)


def estimator_by_site(estimator: str | Mapping[str, str]) -> Callable[[str], str]:
    """The estimator of each site, by name: that of the first pattern that matches, or ``"auto"``.

    Raises:
        ValueError: for a word other than ``"auto"``, ``"local"``, ``"flipout"`` and ``"weights"``.
    """
    choices = {"*": estimator} if isinstance(estimator, str) else dict(estimator)
    for word in choices.values():
        if word not in _TENSORS:
            raise ValueError(f"estimator {word!r} is unknown: use 'auto', 'local', 'flipout' or 'weights'")

    return partial(first_match, choices, rest="auto")


def check_pair(model: Callable[..., Any], guide: Callable[..., Any]) -> None:
    """Refuse a guide that was made for another model, seen through Pyro's handlers.

    Raises:
        ValueError: if it was.
    """
    inner = unwrap(guide)
    if isinstance(inner, VBDGuide) and unwrap(inner.model) is not unwrap(model):
        raise ValueError(f"the guide {inner.name} was made for another model: use VBDGuide(model) of the model in hand")


def paired_traces(
    model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any, estimator: Callable[[str], str]
) -> tuple[poutine.Trace, poutine.Trace]:
    """Traces of the model and of the guide, with the log-probabilities of the observed sites alone.

    Raises:
        RuntimeError: where a weight was stated and never read.
        ValueError: where the model has a latent that the guide does not know, or (while Pyro's validation is on) an
            observed site has a shape that no plate declares.
    """
    with CollapsedScales(), ExitStack() as stack:
        for word, kind in _TENSORS.items():
            if kind is not None:
                stack.enter_context(LocalReparam(lambda site, word=word: estimator(site) == word, kind))  # type: ignore[misc]
        guide_trace = SampleTrace()(guide).get_trace(*args, **kwargs)
    model_trace = SampleTrace()(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    guide_trace, model_trace = prune_subsample_sites(guide_trace), prune_subsample_sites(model_trace)
    _check_latents(model_trace, guide_trace)
    model_trace.compute_log_prob(lambda name, site: site["is_observed"])
    if is_validation_enabled():
        for site in observed_sites(model_trace).values():
            check_site_shape(site, sys.maxsize)  # no plate may declare it: targets (N, 1) against means (N,), say
    return model_trace, guide_trace


def _check_latents(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    ours, theirs = latent_sites(guide_trace), latent_sites(model_trace)
    if unknown := sorted(set(theirs) - set(ours)):
        raise ValueError(
            f"the model has the latents {unknown}, which the guide does not know: construct VBDGuide(model, *inputs) with "
            "example inputs, so that it meets them, or pass the targets, where these are what is to be observed"
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
