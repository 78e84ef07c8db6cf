"""Names for the dimensions of a model's sites: those of plates, those of a network's modules, and what gammas share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from pyro_vbd.network import networks_in
from pyro_vbd.posterior.hierarchy import Hierarchy

__all__ = ["dimension_names", "module_dimensions"]

_SPACE = ("depth", "height", "width")

#: The dimensions of the weight and the bias of torch's modules.
_BY_MODULE: Mapping[type[nn.Module], Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        nn.Linear: {"weight": ("out", "in"), "bias": ("out",)},
        nn.Bilinear: {"weight": ("out", "in1", "in2"), "bias": ("out",)},
        nn.Embedding: {"weight": ("index", "feature")},
        nn.EmbeddingBag: {"weight": ("index", "feature")},
        **{
            conv: {"weight": ("out", "in", *_SPACE[-d:]), "bias": ("out",)}
            for d, conv in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), start=1)
        },
        **{
            conv: {"weight": ("in", "out", *_SPACE[-d:]), "bias": ("out",)}
            for d, conv in enumerate((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), start=1)
        },
    }
)


def module_dimensions(model: Any) -> dict[str, tuple[str, ...]]:
    """Names for the dimensions of the weights of the lifted networks in a model, by site: ``("fc1.out", "fc1.in")``.

    Args:
        model: a Pyro model. One that is no module, and whose networks are out of sight, has none.
    """
    found = {}
    for network in networks_in(model):
        for parameter in network.priors:
            owner, _, name = parameter.rpartition(".")
            for kind, dims in _BY_MODULE.items():
                if isinstance(network.net.get_submodule(owner), kind) and name in dims:
                    prefix = network.site(owner) + "." if owner else network.name and network.name + "."
                    found[network.site(parameter)] = tuple(prefix + dim for dim in dims[name])
    return found


def dimension_names(sites: Mapping[str, Any], model: Any, hierarchy: Hierarchy) -> dict[str, tuple[str, ...]]:
    """A name for each dimension of each site, in order.

    A dimension that stands in a plate has the plate's name. A weight of a module has those of the module. A gamma has
    those dimensions of its weight that it is not shared along. Any other is ``"<site>_dim_<number>"``, as in ArviZ.

    Args:
        sites: sites of a trace.
        model: the model that they come from.
        hierarchy: which latent is which weight's scale.
    """
    known = module_dimensions(model)
    names: dict[str, tuple[str, ...]] = {}
    for site in [*hierarchy.weights, *(site for site in sites if site not in hierarchy.weights)]:
        fn = sites[site]["fn"]
        plates = {frame.dim: frame.name for frame in sites[site]["cond_indep_stack"] if frame.vectorized}
        batch = [plates.get(dim) for dim in range(-len(fn.batch_shape), 0)]
        shape = fn.batch_shape + fn.event_shape
        events: tuple[str | None, ...] = known.get(site, ())
        if len(events) != len(fn.event_shape):
            events = ()
        if not events and not batch:
            events = _of_weight(site, shape, hierarchy, names, sites)
        given = [*batch, *(events or (None,) * len(fn.event_shape))]
        names[site] = tuple(name or f"{site}_dim_{d}" for d, name in enumerate(given))
    return {site: names[site] for site in sites}


def _of_weight(
    gamma: str, shape: Any, hierarchy: Hierarchy, names: Mapping[str, tuple[str, ...]], sites: Mapping[str, Any]
) -> tuple[str | None, ...]:
    """The dimensions of the first weight that a gamma stands behind, where it is not shared along them; else None."""
    for weight in hierarchy.acted_on(gamma):
        factor = weight.factor(gamma)
        weight_shape = sites[weight.site]["fn"].shape()
        if factor.index is not None or len(names[weight.site]) != len(weight_shape):
            continue
        if len(shape) == len(weight_shape):
            pairs = zip(names[weight.site], shape, weight_shape, strict=True)
            return tuple(name if size == whole else None for name, size, whole in pairs)
        own = tuple(d for d in range(len(weight_shape)) if d not in factor.shared)
        if tuple(shape) == tuple(weight_shape[d] for d in own):
            return tuple(names[weight.site][d] for d in own)
    return ()
