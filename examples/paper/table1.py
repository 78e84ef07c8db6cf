"""Table 1: dropouts on MNIST, fully connected networks of three hidden layers.

Run it with ``python examples/paper/table1.py --data-dir DIR --seeds 5``; ``--table 1-strong`` is the second protocol.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro_vbd as vbd
from examples.paper import structured_vbd
from examples.paper.cell import Column, Method, Table
from examples.paper.dropout_rows import dropout_rows
from examples.paper.networks import network
from examples.paper.runner import main

SIZES = ("100", "340", "580", "820", "1060")

#: The paper's settings as far as they are known: 50 epochs, and the rates of Srivastava et al. 2014.
PAPER = {"epochs": 50, "batch_size": 100, "lr": 1e-3, "decay_from": 0.5, "rates": [0.2, 0.5]}
#: Dropout at its best needs a bound on the weights' norms, and time.
STRONG = {**PAPER, "epochs": 300, "decay_from": 0.3, "max_norm": 2.0}
#: The learning rate is chosen by the error of variational Bayesian dropout on held-out data, at widths 100 and 340.
BAYES = {"epochs": 50, "batch_size": 100, "lr": 2e-3, "decay_from": 0.5, "kl_ramp": [5, 20], "kl_weight": 1.0}
#: A KL that counts less, as in variant A2 of Kingma et al. 2015, where networks of these widths would underfit.
KL_WEIGHTS = {"100": 0.25, "340": 0.25}
RECIPES = {size: {**BAYES, "kl_weight": KL_WEIGHTS.get(size, 1.0)} for size in SIZES}
BAYES_STRONG = {**BAYES, "epochs": 300, "decay_from": 0.3, "kl_ramp": [10, 60]}


def figures(*errors: float) -> dict[str, dict[str, Any]]:
    """The paper's errors at the five widths."""
    return {size: {"error": error} for size, error in zip(SIZES, errors, strict=True)}


PRINTED = {
    "none": figures(1.80, 1.77, 1.78, 1.78, 1.71),
    "bernoulli": figures(1.69, 1.68, 1.67, 1.67, 1.63),
    "gaussian": figures(1.70, 1.66, 1.68, 1.69, 1.62),
    "gaussian-dropout": figures(1.66, 1.64, 1.71, 1.65, 1.64),
    "concrete": figures(2.39, 1.61, 1.55, 1.54, 1.51),
    "vd": figures(1.69, 1.62, 1.67, 1.62, 1.63),
    "vbd": figures(1.56, 1.53, 1.53, 1.52, 1.45),
}
#: A row of the strong protocol alone.
GATES = Method(
    "Variational Bayesian dropout, one rate a unit",
    partial(structured_vbd.train, prior=vbd.priors.GaussianUniform()),
    {size: {**structured_vbd.RECIPE, "kl_ramp": [0, 0]} for size in SIZES},
    source="Liu et al. 2019, eq. 19, after a quarter of the epochs without noise",
    members=True,
)
NAMES = ("none", "bernoulli", "gaussian", "gaussian-dropout", "concrete", "vd", "vd-sparse", "vbd")
COLUMNS = {"error": Column("error %")}

TABLES = [
    Table(
        "1",
        "Dropouts on MNIST, test error in %, by the number of units in each of three hidden layers",
        "mnist",
        SIZES,
        dropout_rows(NAMES, network, SIZES, PAPER, RECIPES, PRINTED),
        COLUMNS,
        "The paper's protocol: 50 epochs, dropout rates 0.2 at the input and 0.5 inside. It does not state the optimizer, "
        "batch size, schedule and initialisation: here Adam, its rate falling to 0 over the second half, batches of 100, "
        "He's initialisation; the KL is ramped up from epoch 5 to 20; log variances start at -10, or lower where more than "
        "1% of the weights would start as removed, and Kingma's shared rates from a log variance of -8. The learning rate "
        "is 1e-3 in the plain rows, the best of 1e-3 and 2e-3, or as good, for each on held-out data at width 100; in the "
        "variational rows 2e-3, the best of 1e-3, 2e-3 and 4e-3 for variational Bayesian dropout. In these the KL counts "
        "in full, but at widths 100 and 340 a quarter, which is better than in full on held-out data: at width 100 for "
        "each of the three (of 1, 0.5, 0.25 and 0.1 the best for variational Bayesian dropout), at 340 for the last (1.61 "
        "against 2.00%, two seeds); wider networks have not been run with it yet.",
    ),
    Table(
        "1-strong",
        "Dropouts on MNIST, trained well",
        "mnist",
        SIZES,
        {**dropout_rows(NAMES, network, SIZES, STRONG, dict.fromkeys(SIZES, BAYES_STRONG), {}), "vbd-gates": GATES},
        COLUMNS,
        "The paper's baselines are under-trained: dropout with a bound on the weights' norms reaches 1.06% with 3x1024 "
        "units (Srivastava et al. 2014). Here 300 epochs, with a bound of 2 on the norm of the incoming weights of each "
        "unit in the plain rows, and longer ramps in the variational ones. The last row has noise on units instead of "
        "weights: gates, as in table 5, in the last 150 of 200 epochs. Tried on held-out data at width 340, one seed each, "
        "where gates have 1.42%: a rate a weight with a quarter of the KL 1.48%; gates after 4 epochs without noise 1.38%, "
        "and from a log variance of -1 besides 1.39%, which is within the noise; a rate a layer with a hundredth of the KL "
        "1.81% after 60 of 100 epochs, where it was stopped.",
    ),
]

if __name__ == "__main__":
    main("table1")
