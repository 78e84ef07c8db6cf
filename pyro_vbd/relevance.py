"""Which weights, units and gates the posterior has removed: those whose dropout rate has grown large."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, SupportsFloat

import torch
from pyro.poutine.messenger import unwrap
from torch import Tensor, nn

from pyro_vbd.guide import VBDGuide
from pyro_vbd.network import StochasticNetwork, networks_in
from pyro_vbd.noise.gate import Gate
from pyro_vbd.priors.sharing import shared_shape
from pyro_vbd.recomputation import allow_recomputation
from pyro_vbd.site_patterns import first_match, idle
from pyro_vbd.supervised import SupervisedModel

__all__ = ["check_masks", "gate_sites", "masks", "network_of", "point_network", "relevance", "signal_to_noise", "sparsity"]

# What weights are put together by, in the words of priors.
_SHARING = MappingProxyType({"weight": "weight", "unit": "output", "input": "input"})


@torch.no_grad()
def relevance(guide: VBDGuide, per: str = "weight") -> dict[str, Tensor]:
    r""":math:`\log\alpha` by weight site; the lower, the more relevant. Infinite where the mean is 0.

    .. math:: \log\alpha = \log \sum_i \sigma_i^2 - \log \sum_i \theta_i^2

    over the weights that ``per`` puts together.

    Args:
        guide: a posterior.
        per: ``"weight"``; ``"unit"``, all weights into an output unit (rows, filters); ``"input"``, all out of an input
            unit or channel (columns). A gate is a unit of its own in each. Of a weight of no network of this library (a
            submodule of the model, or the model), the first dimension is taken for its outputs, the second for its inputs.

    Returns:
        Tensors of the weight's shape, with dimensions of size 1 where weights were put together. For a model made by
        ``vbd.Classifier(net, ...)`` the keys are those of ``net.state_dict()``.

    Raises:
        ValueError: if ``per`` is none of the three.
        TypeError: for a guide of another kind.
    """
    if per not in _SHARING:
        raise ValueError(f"per={per!r} is unknown: use one of {', '.join(_SHARING)}")
    if per == "weight":
        return _log_alpha(guide)
    swapped = {site for network in networks_in(guide.model) for site in network.input_first_sites()}
    found = {}
    for site, (variance, square) in _moments(guide).items():
        if variance.dim() > 1:
            shape = shared_shape(_SHARING[per], variance.shape, site in swapped)
            variance, square = variance.sum_to_size(shape), square.sum_to_size(shape)
        found[site] = variance.log() - square.log()
    return found


def signal_to_noise(guide: VBDGuide, per: str = "weight") -> dict[str, Tensor]:
    r""":math:`|\theta|/\sigma = \alpha^{-1/2}` by weight site; the higher, the more relevant.

    Arguments, shapes and errors are those of :func:`relevance`.
    """
    return {site: (-0.5 * value).exp() for site, value in relevance(guide, per).items()}


def masks(
    guide: VBDGuide,
    threshold: float | Mapping[str, float] = 3.0,
    gate_threshold: float = 0.0,
    *,
    per: str = "weight",
) -> dict[str, Tensor]:
    r"""Which weights are kept, by site: 1 where :math:`\log\alpha` is at most the threshold, else 0.

    At 3, the threshold of Molchanov et al. 2017, alpha is 20: a binary dropout rate of 0.95. At 0, the threshold for gates
    in the released code of Liu et al. 2019 (who print none), the noise is as large as the signal. Shapes and dtypes are
    those of the weights, as the masks of ``torch.nn.utils.prune`` are.

    Args:
        guide: a posterior.
        threshold: for weights; or a dict from patterns of site names to thresholds: the first pattern that matches a site
            counts, and a site without one has 3 (a gate, ``gate_threshold``).
        gate_threshold: for the weights of :class:`~pyro_vbd.noise.Gate`.
        per: whether weights go one by one, or a ``"unit"`` or an ``"input"`` at a time; see :func:`relevance`.

    Raises:
        ValueError: if ``per`` is unknown, a threshold is NaN, or a pattern matches no site.
        TypeError: if a threshold is no number (those of NumPy and tensors of one element are), or for a guide of another
            kind.
    """
    if isinstance(threshold, Mapping):
        patterns, rest = {p: _number(f"the threshold of {p!r}", value) for p, value in threshold.items()}, 3.0
    else:
        patterns, rest = {}, _number("threshold", threshold)
    rests = dict.fromkeys(gate_sites(guide.model), _number("gate_threshold", gate_threshold))
    full = _log_alpha(guide)
    if lost := idle(patterns or ["*"], full):
        raise ValueError(f"the thresholds of {lost} are for no weight: the sites are {sorted(full)}; mend the patterns")
    limits = {site: first_match(patterns, site, rests.get(site, rest)) for site in full}
    return {
        site: (value <= limits[site]).to(value.dtype).expand_as(full[site]).contiguous()
        for site, value in relevance(guide, per).items()
    }


def sparsity(guide: VBDGuide, threshold: float | Mapping[str, float] = 3.0, gate_threshold: float = 0.0) -> float:
    """Share of the Bayesian weights and gates whose log alpha exceeds the threshold, between 0 and 1.

    Thresholds and errors are those of :func:`masks`.
    """
    kept = masks(guide, threshold, gate_threshold).values()
    return 1.0 - float(sum(mask.sum() for mask in kept)) / sum(mask.numel() for mask in kept)


@torch.no_grad()
def point_network(
    model: Any,
    guide: VBDGuide,
    threshold: float | Mapping[str, float] | None = None,
    gate_threshold: float = 0.0,
    *,
    kept: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """The plain network with the posterior means as its weights, without the removed ones.

    Args:
        model: a ``Classifier``, a ``Regressor`` or a lifted network.
        guide: its posterior.
        threshold: log alpha beyond which a weight becomes 0; see :func:`masks`; None keeps all.
        gate_threshold: the same of gates.
        kept: masks by site to use instead of thresholds.

    Returns:
        A copy of the network, in the mode (``train`` or ``eval``) that the model's is in.

    Raises:
        TypeError: if the model holds no network, or the guide is of another kind.
        ValueError: if the guide is another model's, or the masks are those of another network.
    """
    network = network_of(model)
    net = copy.deepcopy(network.net)
    allow_recomputation(net)
    weights = list(_log_alpha(guide))
    means = guide.median()
    if kept is None:
        kept = masks(guide, threshold, gate_threshold) if threshold is not None else {}
    check_masks(kept, {site: means[site] for site in weights})
    for name in network.priors:
        site = network.site(name)
        parameter = net.get_parameter(name)
        if site not in means or means[site].shape != parameter.shape:
            raise ValueError(
                f"the guide has no posterior of {site!r} with shape {tuple(parameter.shape)}: it is of another model; pass "
                "the one made for this"
            )
        parameter.copy_(network.with_padding(name, means[site] * kept[site] if site in kept else means[site]))
        parameter.requires_grad_(True)
    return net


def network_of(model: Any) -> StochasticNetwork:
    """The lifted network inside a model of this library, also where handlers of Pyro stand around it.

    Raises:
        TypeError: if there is none.
    """
    model = unwrap(model)
    network = model.network if isinstance(model, SupervisedModel) else model
    if not isinstance(network, StochasticNetwork):
        raise TypeError(f"{type(model).__name__} holds no network: pass a Classifier, a Regressor or a lifted network")
    return network


def gate_sites(model: Any) -> set[str]:
    """The sites that are weights of gates; empty for a model that holds no network of this library's."""
    return {
        network.site(name)
        for network in networks_in(model)
        for name in network.priors
        if isinstance(network.net.get_submodule(name.rpartition(".")[0]), Gate)
    }


def _log_alpha(guide: Any) -> dict[str, Tensor]:
    if not isinstance(guide, VBDGuide):
        raise TypeError(f"{type(guide).__name__} has no dropout rates: pass a VBDGuide of the model")
    return guide.log_alpha()


def _moments(guide: VBDGuide) -> dict[str, tuple[Tensor, Tensor]]:
    """Variances and squared means, by weight site."""
    weights = {site: guide.learned[site].distribution() for site in _log_alpha(guide)}
    return {site: (q.variance, q.loc.square()) for site, q in weights.items()}


def _number(setting: str, threshold: Any) -> float:
    """A threshold as a float, of whatever library it is a number."""
    try:
        number = float(threshold) if isinstance(threshold, SupportsFloat) else None  # float("3") is 3
    except (TypeError, ValueError, RuntimeError):  # several numbers; the type depends on the library
        number = None
    if number is None:
        raise TypeError(f"{setting} is {threshold!r}, which is no number: use one, such as 3.0")
    if math.isnan(number):
        raise ValueError(f"{setting} is {threshold!r}, which would keep nothing and remove nothing: use a number")
    return number


def check_masks(kept: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse masks that are not those of some weights.

    Args:
        kept: masks by site.
        weights: tensors of the weights' shapes by site.

    Raises:
        ValueError: for a site that is no weight's, another shape, or a number besides 0 and 1.
    """
    for site, mask in kept.items():
        if site not in weights:
            raise ValueError(
                f"there is a mask for {site!r}, but the weights are {sorted(weights)}: it is of another network"
            )
        if mask.shape != weights[site].shape:
            raise ValueError(
                f"the mask of {site!r} has shape {tuple(mask.shape)}, the weight {tuple(weights[site].shape)}: it is of "
                "another network"
            )
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(f"the mask of {site!r} holds other numbers than 0 and 1: pass 1 where a weight stays, else 0")
