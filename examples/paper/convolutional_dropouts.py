"""The rows that Tables 2 and 3 have in common: dropouts on the convolutional network for 32x32 colour images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

import pyro_vbd as vbd
from examples.paper import dropouts, variational_classifier
from examples.paper.cell import Method
from models import convnet

__all__ = ["NOTE", "methods"]

#: No noise on the image; the rate of the paper's Table 3, "0.5 for all layers", on all that follows.
PLAIN = {"epochs": 100, "batch_size": 100, "lr": 1e-3, "decay_from": 0.5, "rates": [0.0, 0.5]}
BAYES = {"epochs": 100, "batch_size": 100, "lr": 1e-3, "decay_from": 0.5, "kl_ramp": [5, 20], "kl_weight": 1.0}

NOTE = (
    "The paper states 100 epochs and rates of 0.5, no more. Here: Adam at 1e-3, falling to 0 over the second half, batches "
    "of 100, standardised images, no augmentation; noise on the inputs of every layer but the first, channel by channel in "
    "concrete dropout's convolutions; the adversary stands before the last layer and may switch 5% of its inputs."
)


def network(size: str) -> nn.Sequential:
    """The network of a scale."""
    return convnet(float(size))


def methods(sizes: Sequence[str], printed: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
    """All rows.

    Args:
        sizes: scales of the network.
        printed: the paper's figures, by row and size.
    """

    def noisy(title: str, name: str, source: str = "", **more: Any) -> Method:
        recipes = {size: {**PLAIN, **more} for size in sizes}
        return Method(title, partial(dropouts.train, network=network, name=name), recipes, printed[name], source)

    def bayesian(title: str, key: str, prior: vbd.priors.Prior, alpha: str, log_var: float, source: str) -> Method:
        fit = partial(variational_classifier.train, network=network, prior=prior, alpha=alpha)
        recipes = {size: {**BAYES, "alpha": alpha, "init_log_var": log_var} for size in sizes}
        return Method(title, fit, recipes, printed.get(key, {}), source)

    return {
        "none": noisy("No dropout", "none"),
        "bernoulli": noisy("Dropout, Bernoulli", "bernoulli", "Srivastava et al. 2014"),
        "gaussian": noisy("Dropout, Gaussian", "gaussian", "Srivastava et al. 2014, section 10"),
        "adversarial": noisy(
            "Adversarial dropout", "adversarial", "Park et al. 2018, supervised", delta=0.05, adversarial_weight=1.0),
        "concrete": noisy("Concrete dropout", "concrete", "Gal et al. 2017", length_scale=1e-2),
        "vd": bayesian(
            "Variational dropout (Kingma; one rate a layer)", "vd", vbd.priors.LogUniform(vbd.priors.kingma), "layer", -8.0,
            "Kingma et al. 2015"),
        "vd-sparse": bayesian(
            "Variational dropout (Molchanov; one rate a weight)", "vd-sparse", vbd.priors.LogUniform(), "weight", -10.0,
            "Molchanov et al. 2017"),
        "vbd": bayesian(
            "Variational Bayesian dropout", "vbd", vbd.priors.GaussianUniform(), "weight", -10.0, "Liu et al. 2019"),
    }  # fmt: skip
