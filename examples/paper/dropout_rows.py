"""The rows of Tables 1 to 3: dropouts as regularisers, for any network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

import pyro_vbd as vbd
from examples.paper import dropouts, variational_classifier
from examples.paper.cell import Method

__all__ = ["dropout_rows"]


@dataclass(frozen=True)
class Noisy:
    """Noise on the inputs of layers, without a posterior."""

    title: str
    source: str = ""
    #: What its recipe has beyond that of the others.
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variational:
    """A posterior over the weights."""

    title: str
    source: str
    prior: vbd.priors.Prior
    #: What shares a dropout rate.
    alpha: str
    #: Where log variances start.
    log_var: float


ROWS: dict[str, Noisy | Variational] = {
    "none": Noisy("No dropout"),
    "bernoulli": Noisy("Dropout, Bernoulli", "Srivastava et al. 2014"),
    "gaussian": Noisy("Dropout, Gaussian", "Srivastava et al. 2014, section 10"),
    "gaussian-dropout": Noisy("Gaussian dropout", "Wang and Manning 2013"),
    "adversarial": Noisy(
        "Adversarial dropout", "Park et al. 2018, supervised", {"delta": 0.05, "adversarial_weight": 1.0}
    ),
    "concrete": Noisy("Concrete dropout", "Gal et al. 2017", {"length_scale": 1e-2}),
    "vd": Variational(
        "Variational dropout (Kingma; one rate a layer)", "Kingma et al. 2015",
        vbd.priors.LogUniform(vbd.priors.kingma), "layer", -8.0,
    ),
    "vd-sparse": Variational(
        "Variational dropout (Molchanov; one rate a weight)", "Molchanov et al. 2017",
        vbd.priors.LogUniform(), "weight", -10.0,
    ),
    "vbd": Variational(
        "Variational Bayesian dropout", "Liu et al. 2019", vbd.priors.GaussianUniform(), "weight", -10.0
    ),
}  # fmt: skip


def dropout_rows(
    names: Sequence[str],
    network: Callable[[str], nn.Sequential],
    sizes: Sequence[str],
    plain: Mapping[str, Any],
    bayes: Mapping[str, Mapping[str, Any]],
    printed: Mapping[str, Mapping[str, Any]],
) -> dict[str, Method]:
    """The rows of a table, by name and in the order asked for.

    Args:
        names: of rows.
        network: makes the network of a size.
        sizes: of the network.
        plain: recipe of the rows without a posterior.
        bayes: recipes of the variational rows, by size.
        printed: the paper's figures, by row and size.
    """
    methods = {}
    for name in names:
        row = ROWS[name]
        if isinstance(row, Noisy):
            train = partial(dropouts.train, network=network, name=name)
            recipes = {size: {**plain, **row.more} for size in sizes}
        else:
            train = partial(variational_classifier.train, network=network, prior=row.prior)
            own = {"alpha": row.alpha, "init_log_var": row.log_var}
            recipes = {size: {**bayes[size], **own} for size in sizes}
        methods[name] = Method(
            row.title, train, recipes, printed.get(name, {}), row.source, members=isinstance(row, Variational)
        )
    return methods
