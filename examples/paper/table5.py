"""Table 5: neurons removed from LeNet-500-300 and LeNet-5-Caffe on MNIST.

Run it with ``python examples/paper/table5.py --data-dir DIR --seeds 2 --sizes lenet-500-300 --only vbd sbp``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro_vbd as vbd
from examples.paper import (
    bayesian_pruning,
    dense,
    gated,
    group_sparsity,
    structured_sparsity,
    structured_vbd,
    variational_sparsity,
)
from examples.paper.cell import Column, Method, Table
from examples.paper.runner import main
from examples.paper.structured_vbd import measure

FC, CONV = "lenet-500-300", "lenet-5"
SIZES = (FC, CONV)

#: Weights and multiply-adds are not printed in the paper: they follow from its neurons.
PRINTED: dict[str, dict[str, dict[str, Any]]] = {
    "original": {
        FC: {"error": 1.54, "neurons": [784, 500, 300], "weights": 545000, "macs": 545000},
        CONV: {"error": 0.80, "neurons": [20, 50, 800, 500], "weights": 430500, "macs": 2293000},
    },
    "vd": {
        FC: {"error": 1.57, "neurons": [537, 217, 130], "weights": 146039, "macs": 146039},
        CONV: {"error": 0.75, "neurons": [17, 32, 329, 75], "weights": 39450, "macs": 1140625},
    },
    "ssl": {
        FC: {"error": 1.49, "neurons": [434, 174, 78], "weights": 89868, "macs": 89868},
        CONV: {"error": 1.00, "neurons": [3, 12, 800, 500], "weights": 405975, "macs": 505800},
    },
    "sbp": {
        FC: {"error": 1.55, "neurons": [245, 160, 55], "weights": 48550, "macs": 48550},
        CONV: {"error": 0.86, "neurons": [3, 18, 284, 283], "weights": 84627, "macs": 212802},
    },
    "vbd": {
        FC: {"error": 1.35, "neurons": [179, 160, 60], "weights": 38840, "macs": 38840},
        CONV: {"error": 0.66, "neurons": [16, 34, 123, 62], "weights": 22246, "macs": 1109046},
    },
}

PLAIN = {"epochs": 200, "batch_size": 100, "lr": 1e-3}
WEIGHTS = {**PLAIN, "kl_ramp": [5, 20], "kl_weight": 1.0, "init_log_var": -10.0, "init_std": 0.01, "threshold": 3.0}

METHODS = {
    "original": Method(
        "Original",
        partial(dense.train, measure=measure),
        {size: {**PLAIN, "decay_from": 0.5} for size in SIZES},
        PRINTED["original"],
    ),
    "vd": Method(
        "Variational dropout",
        partial(variational_sparsity.train, prior=vbd.priors.LogUniform(), measure=measure),
        {FC: {**WEIGHTS, "decay_from": 0.5}, CONV: {**WEIGHTS, "decay_from": 0.0, "estimator": "auto"}},
        PRINTED["vd"],
        "Molchanov et al. 2017: weights are removed one by one, and neurons left without any are counted off",
        members=True,
    ),
    "ssl": Method(
        "Structured sparsity learning",
        structured_sparsity.train,
        {
            FC: {**PLAIN, "lasso": 0.5, "lambda": 0.1, "tune_lr": 0.3},
            CONV: {**PLAIN, "lasso": 0.5, "lambda": 0.1, "tune_lr": 0.3},
        },
        PRINTED["ssl"],
        "Wen et al. 2016",
    ),
    "sbp": Method(
        "Structured Bayesian pruning",
        bayesian_pruning.train,
        {size: {**gated.RECIPE, "beta1": 0.95} for size in SIZES},
        PRINTED["sbp"],
        "Neklyudov et al. 2017",
    ),
    "vbd": Method(
        "Variational Bayesian dropout",
        partial(structured_vbd.train, prior=vbd.priors.GaussianUniform()),
        {size: {**structured_vbd.RECIPE, "kl_ramp": [0, 0]} for size in SIZES},
        PRINTED["vbd"],
        "Liu et al. 2019",
        members=True,
    ),
}

STRONG_GATES: dict[str, dict[str, Any]] = {
    FC: {**structured_vbd.RECIPE, "decay_from": 0.6, "kl": [[0, 7.0], [90, 7.0], [100, 1.0]]},
    CONV: {
        **structured_vbd.RECIPE, "epochs": 100, "decay_from": 0.6, "kl": [[0, 6.0], [45, 6.0], [50, 1.0]],
        "site_weights": {"3.weight": 2.4, "7.weight": 1.4, "12.weight": 2.0},
    },
}  # fmt: skip
STRONG_GROUPS = {
    "epochs": 80, "batch_size": 100, "lr": 2e-3, "dense": 0.075, "kl_ramp": [0, 6], "kl_weight": 0.6, "decay_from": 0.5,
    "init_log_var": -8.0, "threshold": 3.5, "tune": 0.125, "tune_lr": 1e-3, "estimator": "auto", "site_weights": {},
}  # fmt: skip

STRONG_METHODS = {
    "vbd-gates": Method(
        "Variational Bayesian dropout, gates",
        METHODS["vbd"].train,
        STRONG_GATES,
        PRINTED["vbd"],
        members=True,
    ),
    "vbd-groups": Method(
        "Variational Bayesian dropout, priors shared by groups of weights",
        partial(group_sparsity.train, prior=vbd.priors.GaussianUniform),
        {
            FC: STRONG_GROUPS,
            CONV: {
                **STRONG_GROUPS,
                "kl_weight": 0.8,
                "site_weights": {"[03].weight": 2.0, "7.weight": 0.5, "9.weight": 12.5},
            },
        },
        source="shared scales: Louizos et al. 2017, whose group horseshoe leaves 5-10-76-16 of LeNet-5, and 1.0% errors",
        members=True,
    ),
}

COLUMNS = {
    "error": Column("error %"),
    "neurons": Column("neurons", 0),
    "weights": Column("weights", 0),
    "macs": Column("multiply-adds", 0),
}

TABLES = [
    Table(
        "5",
        "Neurons removed from LeNets on MNIST",
        "mnist",
        SIZES,
        METHODS,
        COLUMNS,
        "Neurons by layer: pixels and hidden units of LeNet-500-300; filters, filters, flattened inputs and hidden units "
        "of LeNet-5-Caffe. A neuron counts if something that is left reaches it and reads it; weights and multiply-adds "
        "are those of the dense network of that size, which for the paper's rows follow from the neurons it prints. "
        "Structured Bayesian pruning and variational Bayesian dropout have gates on all of these, in the last 150 of 200 "
        "epochs; a gate closes at a signal-to-noise ratio of 1, which is log alpha = 0. Under variational dropout "
        "LeNet-5's convolutions draw their weights once a batch, where published code samples their outputs.",
    ),
    Table(
        "5-strong",
        "Neurons removed from LeNets on MNIST, trained for it",
        "mnist",
        SIZES,
        STRONG_METHODS,
        COLUMNS,
        "Gates as in table 5, under six or seven times their KL for 60% of their epochs, then again under the bound. "
        "Priors shared by groups: by all weights that read one channel or unit, and by each filter of the first "
        "convolution; what is left is cut, and trained by its likelihood alone, ten epochs: 70, tried from the same seed, "
        "end at 1.37%. In LeNet-5 the KL of some gates and groups counts for what goes with them (site_weights in the "
        "records).",
    ),
]

if __name__ == "__main__":
    main("table5")
