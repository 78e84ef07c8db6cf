r"""Which latents of a Pyro model are weights, and which latent is which weight's variance, scale or precision.

Nothing is read off names or code. The model runs a few times with values that we choose, and its dependence on them is
looked at. A weight is a latent Normal of mean 0 (or log-uniform); its scale is taken apart into

.. math:: s = c \prod_j g_j^{p_j}, \qquad p_j \in \{1/2, 1, -1/2\}

(g a variance, a scale, a precision), with an index that says which element of g stands behind which weight; and the
formula is checked at two further random points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, Transform

from pyro_vbd.distributions import base_distribution, is_positive, tensors
from pyro_vbd.posterior.scale_factors import Factor, Weight
from pyro_vbd.priors.log_uniform import ImproperLogUniform
from pyro_vbd.priors.prior import POWERS
from pyro_vbd.prototype import latent_sites, run_with, sample_sites, typical_value

__all__ = ["Hierarchy", "find_hierarchy"]

# The elements of a factor are told apart by their numbers, written digit by digit into its logarithm in steps of _STEP:
# half a step (p = 1/2) is a hundred times the rounding error of a float32 scale, and _BASE steps are a factor of 1.5.
_BASE, _STEP = 4096, 1e-4
_CHECKS = 2

# Where a Normal and a CentredNormal hold what a factor acts on.
_SPREAD = ("scale", "variance")

_Scales = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Hierarchy:
    """The latents of a model, by what they are to its weights."""

    #: The weights in the model's order, with the factors of their scales; without factors where the scale does not fit.
    weights: dict[str, Weight]
    #: Latents that are factors of weights' scales and nothing else.
    gammas: frozenset[str]
    #: Those gammas whose prior, and whose weights' constants, hold no other latent and no parameter.
    fixed: frozenset[str]
    #: Latents that act on a weight's scale in a way that does not fit.
    unfit: frozenset[str]

    def acted_on(self, gamma: str) -> list[Weight]:
        """The weights of whose scales ``gamma`` is a factor."""
        return [weight for weight in self.weights.values() if any(f.site == gamma for f in weight.factors)]


@torch.inference_mode(False)  # gradients tell what depends on what
def find_hierarchy(model: Callable[..., Any], args: Any, kwargs: Any) -> Hierarchy:
    """Find the weights of a model and the factors of their scales.

    Args:
        model: a Pyro model with static structure.
        args: positional arguments to run it with.
        kwargs: keyword arguments to run it with.
    """
    leaves: dict[str, Tensor] = {}
    trace = run_with({}, model, args, kwargs, leaves)
    sites = latent_sites(trace)
    point = {name: site["value"].detach() for name, site in sites.items()}
    centred = [name for name, site in sites.items() if _is_centred(site["fn"])]
    acts_on = _dependence(sample_sites(trace), leaves)
    behind = {weight: [g for g in leaves if any((weight, role) in acts_on[g] for role in _SPREAD)] for weight in centred}
    acting = {g for parts in behind.values() for g in parts}
    candidates = [
        g
        for g in leaves
        if g in acting and is_positive(sites[g]["fn"]) and all(w in behind and role in _SPREAD for w, role in acts_on[g])
    ]

    def scales(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            nodes = run_with({**point, **values}, model, args, kwargs).nodes
        normals = {name: base_distribution(nodes[name]["fn"]) for name in centred}
        # a mean that moves away from 0 makes the scale NaN, and nothing fits it
        return {name: n.scale.detach().masked_fill(n.loc != 0, math.nan) for name, n in normals.items()}

    start = scales({})
    found: dict[tuple[str, str], Factor] = {}
    for group in _colours(candidates, behind):
        links = {g: sites[g]["infer"].get("link") for g in group}
        found.update(_factors(group, links, point, start, behind, scales))

    weights = {name: _weight(name, start[name], point, [found.get((name, g)) for g in behind[name]]) for name in centred}
    for _ in range(_CHECKS):
        values = {name: typical_value(sites[name]["fn"], 0.7) for name in leaves}
        for name, scale in scales(values).items():
            if weights[name].factors and not _explains(weights[name], values, scale):
                weights[name] = Weight(name, start[name], [])

    fits = set(candidates)
    while broken := {g for g in fits if not all(weights[w].factors for w, _ in acts_on[g])}:
        fits -= broken  # a factor that fits one weight and not another is no factor, and what stands beside it neither
        for name in centred:
            if not fits.issuperset(behind[name]):
                weights[name] = Weight(name, start[name], [])
    return Hierarchy(
        weights=_in_order(sites, weights),
        gammas=frozenset(fits),
        fixed=frozenset(fits - _varying(model, args, kwargs, point, acts_on, fits)),
        unfit=frozenset(acting - fits),
    )


def _is_centred(fn: Any) -> bool:
    base = base_distribution(fn)
    return isinstance(base, Normal) and not bool(base.loc.any())


def _dependence(sites: Mapping[str, Any], leaves: Mapping[str, Tensor]) -> dict[str, set[tuple[str, str]]]:
    """For each latent, the (site, parameter of its distribution) pairs that are computed from it."""
    acts_on: dict[str, set[tuple[str, str]]] = {name: set() for name in leaves}
    for name, site in sites.items():
        for role, value in tensors(site["fn"]):
            if value.requires_grad:
                grads = torch.autograd.grad(value.sum(), list(leaves.values()), retain_graph=True, allow_unused=True)
                for leaf, grad in zip(leaves, grads, strict=True):
                    if grad is not None:
                        acts_on[leaf].add((name, role))
    return acts_on


def _varying(
    model: Callable[..., Any],
    args: Any,
    kwargs: Any,
    point: Mapping[str, Tensor],
    acts_on: Mapping[str, set[tuple[str, str]]],
    gammas: set[str],
) -> set[str]:
    """Gammas whose prior holds another latent, or that stand beside a parameter that is being trained."""
    sites = latent_sites(run_with(point, model, args, kwargs))  # no leaves: only nn.Parameters and pyro.params require grad
    trained = {n for n, site in sites.items() if any(v.requires_grad for _, v in tensors(site["fn"]))}
    on_latents = {site for users in acts_on.values() for site, _ in users if site in gammas}
    return {g for g in gammas if g in trained or g in on_latents or any(w in trained for w, _ in acts_on[g])}


def _colours(candidates: list[str], behind: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """Groups of candidates of which no two stand behind the same weight: they can be moved in the same run."""
    left = list(candidates)
    while left:
        group: list[str] = []
        for g in left:
            if not any(g in parts and h in parts for parts in behind.values() for h in group):
                group.append(g)
        yield group
        left = [g for g in left if g not in group]


def _factors(
    group: list[str],
    links: Mapping[str, Transform | None],
    point: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    behind: Mapping[str, list[str]],
    scales: _Scales,
) -> dict[tuple[str, str], Factor]:
    """The factors of a group, by (weight, latent): the power from halving it, the index from its digits."""
    pairs = [(weight, g) for g in group for weight, parts in behind.items() if g in parts]

    def times(g: str, factor: Tensor | float) -> Tensor:
        """The value of g at which what takes its place is so many times as large."""
        link = links[g]
        return point[g] * factor if link is None else link.inv(link(point[g]) * factor)  # type: ignore[no-any-return]

    halved = scales({g: times(g, 0.5) for g in group})
    powers = {}
    for weight, g in pairs:
        slope = torch.log2(start[weight] / halved[weight])
        for power in POWERS.values():
            if bool(((slope - power).abs() < 1e-3).all()):
                powers[weight, g] = power

    index = {pair: torch.zeros_like(start[pair[0]], dtype=torch.long) for pair in powers}
    largest = max((point[g].numel() for _, g in powers), default=1)
    for place in range(math.ceil(math.log(largest, _BASE))):
        numbers = {g: torch.arange(point[g].numel(), device=point[g].device).view_as(point[g]) for _, g in powers}
        digits = {g: torch.div(n, _BASE**place, rounding_mode="floor") % _BASE for g, n in numbers.items()}
        # down, since a link may have an upper end
        moved = scales({g: times(g, torch.exp(-_STEP * digit.to(point[g]))) for g, digit in digits.items()})
        for weight, g in list(index):
            steps = torch.log(start[weight] / moved[weight]) / (powers[weight, g] * _STEP)
            if bool(((steps - steps.round()).abs() < 0.3).all()):
                index[weight, g] += steps.round().long() * _BASE**place
            else:
                del index[weight, g]
    return {
        (weight, g): Factor(g, powers[weight, g], numbers, point[g].numel(), links[g])
        for (weight, g), numbers in index.items()
        if bool(((numbers >= 0) & (numbers < point[g].numel())).all())
    }


def _weight(name: str, scale: Tensor, point: Mapping[str, Tensor], factors: list[Factor | None]) -> Weight:
    known = [factor for factor in factors if factor is not None]
    if len(known) < len(factors):
        return Weight(name, scale, [])
    return Weight(name, scale / math.prod((f.spread(point[f.site]) for f in known), start=torch.ones_like(scale)), known)


def _explains(weight: Weight, values: Mapping[str, Tensor], scale: Tensor) -> bool:
    predicted = weight.scale_without(None, values)
    assert predicted is not None  # there are factors
    return bool(((predicted / scale - 1.0).abs() < 1e-4).all())


def _in_order(sites: Mapping[str, Any], weights: dict[str, Weight]) -> dict[str, Weight]:
    """The weights in the order of their sites, with those under the log-uniform prior, which have no scale."""
    for name, site in sites.items():
        if isinstance(base_distribution(site["fn"]), ImproperLogUniform):
            weights[name] = Weight(name, torch.ones(1), [])
    return {name: weights[name] for name in sites if name in weights}
