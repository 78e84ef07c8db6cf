"""Which gamma of a model gets which q: a delta at its optimum, the exact posterior, or something learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch.distributions import Distribution, Transform

from pyro_vbd.distributions import base_distribution
from pyro_vbd.posterior.hierarchy import Hierarchy
from pyro_vbd.posterior.optimal_scale import DeltaAt, Exact, ScaleRule
from pyro_vbd.posterior.scale_factors import Weight
from pyro_vbd.priors.evidence import find_evidence
from pyro_vbd.priors.optimum import find_optimum

__all__ = ["SCALE_POSTERIORS", "choose_rules", "scale_rule_of"]

_RuleOf = Callable[[type[Distribution], str, Transform | None], ScaleRule | None]


def _delta(hyperprior: type[Distribution], on: str, link: Transform | None) -> ScaleRule | None:
    optimum = find_optimum(hyperprior, on, link)
    return None if optimum is None else DeltaAt(optimum)


def _exact(hyperprior: type[Distribution], on: str, link: Transform | None) -> ScaleRule | None:
    return Exact(find_evidence(hyperprior, on) if link is None else None)


def _lognormal(hyperprior: type[Distribution], on: str, link: Transform | None) -> ScaleRule | None:
    return None


#: By the word for q(gamma), what gives the rule of a hyperprior; None where gamma is learned.
SCALE_POSTERIORS: Mapping[str, _RuleOf] = MappingProxyType({"delta": _delta, "lognormal": _lognormal, "exact": _exact})


def scale_rule_of(scale_posterior: str) -> _RuleOf:
    """What gives the rules for a ``scale_posterior``.

    Raises:
        ValueError: if the word is unknown.
    """
    if scale_posterior not in SCALE_POSTERIORS:
        raise ValueError(f"scale_posterior={scale_posterior!r} is unknown: use one of {', '.join(SCALE_POSTERIORS)}")
    return SCALE_POSTERIORS[scale_posterior]


def choose_rules(scale_posterior: str, sites: Mapping[str, Any], hierarchy: Hierarchy) -> dict[str, ScaleRule]:
    """The gammas whose q follows from the weights: at most one factor of any weight, those with most elements first.

    Raises:
        ValueError: for ``"exact"``, where the gammas of a weight depend on something that is learned, or each of them acts
            on other weights in another role, or beside a gamma that has its posterior already.
    """
    rule_of = scale_rule_of(scale_posterior)
    rules: dict[str, ScaleRule] = {}
    taken: set[str] = set()
    for site in sorted(hierarchy.fixed, key=lambda g: (-sites[g]["value"].numel(), list(sites).index(g))):
        acted_on = hierarchy.acted_on(site)
        roles = {weight.factor(site).on for weight in acted_on}
        if len(roles) == 1 and taken.isdisjoint(weight.site for weight in acted_on):
            rule = rule_of(type(base_distribution(sites[site]["fn"])), roles.pop(), sites[site]["infer"].get("link"))
            if rule is not None:
                rules[site] = rule
                taken.update(weight.site for weight in acted_on)
    if scale_posterior == "exact":
        for weight in hierarchy.weights.values():
            if weight.factors and weight.site not in taken:
                raise ValueError(f"scale_posterior='exact' has no scale of {weight.site!r} to stand on: "
                                 f"{_why_none(weight, hierarchy)}: use 'lognormal'")  # fmt: skip
    return rules


def _why_none(weight: Weight, hierarchy: Hierarchy) -> str:
    """Why none of the factors of a weight's scale can have the exact posterior."""
    names = [str(factor.site) for factor in weight.factors]
    if not (fixed := [name for name in names if name in hierarchy.fixed]):
        return f"the prior of {names} holds a latent or a parameter, or a parameter multiplies it"
    others = sorted({other.site for name in fixed for other in hierarchy.acted_on(name)} - {weight.site})
    return f"{fixed} also acts on {others}, there in another role, or beside a scale that has the exact posterior already"
