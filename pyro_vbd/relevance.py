"""Which weights the posterior has removed: those whose dropout rate has grown large."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vbd.guide import VBDGuide
from pyro_vbd.network import StochasticNetwork
from pyro_vbd.supervised import SupervisedModel

__all__ = ["masks", "point_network", "sparsity"]


def masks(guide: VBDGuide, threshold: float = 3.0) -> dict[str, Tensor]:
    r"""Which weights are kept, by site: 1 where :math:`\log\alpha \le` ``threshold``, else 0.

    At 3, alpha is 20, a binary dropout rate of 0.95 (section 4.3 of Liu et al. 2019; Molchanov et al. 2017). Shapes and
    dtypes are those of the weights, as the masks of ``torch.nn.utils.prune`` are.
    """
    return {site: (value <= threshold).to(value.dtype) for site, value in guide.log_alpha().items()}


def sparsity(guide: VBDGuide, threshold: float = 3.0) -> float:
    """Share of the Bayesian weights whose log alpha exceeds the threshold, between 0 and 1."""
    kept = masks(guide, threshold).values()
    return 1.0 - float(sum(mask.sum() for mask in kept)) / sum(mask.numel() for mask in kept)


@torch.no_grad()
def point_network(model: Any, guide: VBDGuide, threshold: float | None = None) -> nn.Module:
    """The plain network with the posterior means as its weights, without the removed ones.

    Args:
        model: a ``Classifier``, a ``Regressor`` or a lifted network.
        guide: its posterior.
        threshold: log alpha beyond which a weight becomes 0; None keeps all.

    Returns:
        A copy of the network, in the mode (``train`` or ``eval``) that the model's is in.

    Raises:
        TypeError: if the model holds no network.
    """
    network = model.network if isinstance(model, SupervisedModel) else model
    if not isinstance(network, StochasticNetwork):
        raise TypeError(f"{type(model).__name__} holds no network: pass a Classifier, a Regressor or a lifted network")
    net = copy.deepcopy(network.net)
    means = guide.median()
    kept = masks(guide, threshold) if threshold is not None else {}
    for name in network.priors:
        site = network.site(name)
        parameter = net.get_parameter(name)
        parameter.copy_(means[site] * kept[site] if site in kept else means[site])
        parameter.requires_grad_(True)
    return net
