"""Structured variational Bayesian dropout: gates with a posterior, closed where log alpha > 0 (Tables 5 and 1-strong).

After the authors' released layer (yuhangliu01/Variational-Bayesian-Dropout): means from N(1, 0.01^2), log variances from
-9, a unit stays where log alpha < 0, the KL at its full weight. The network is trained densely first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Job
from examples.paper.dense import begun_from_dense
from examples.paper.gated import RECIPE as GATES
from examples.paper.gated import folded, gated
from examples.paper.measures import error, structure
from examples.paper.picking import metrics, seconds
from pyro_vbd.noise import Gate

__all__ = ["RECIPE", "gate_weights", "measure", "train"]

#: But for the course of the KL, which a table adds: ``kl_ramp`` or ``kl``.
RECIPE = {**GATES, "init_log_var": -9.0, "threshold": 0.0}


def measure(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Error, and neurons, weights and multiply-adds that are left."""
    return {"error": error(net, x, y), **structure(net, x[:1])}


def gate_weights(net: nn.Module) -> list[str]:
    """The names of the gates' weights."""
    return [f"{name}.weight" for name, module in net.named_modules() if isinstance(module, Gate)]


def train(jobs: Sequence[Job], prior: vbd.priors.Prior) -> list[dict[str, Any]]:
    """Train densely, then with gates under a prior; the network without the closed ones."""
    recipe = jobs[0].recipe

    def begin(job: Job, plain: nn.Sequential) -> bayesian.Subject:
        net = gated(plain, Gate).to(job.device)
        model = vbd.Classifier(net, prior, num_data=len(job.data.x), where=gate_weights(net))
        guide = vbd.VBDGuide(model, init_log_var=recipe["init_log_var"])
        removed_from = {"*": recipe["threshold"]}
        return bayesian.Subject(job, model, guide, lambda: folded(vbd.point_network(model, guide, removed_from)))

    subjects, left, firsts = begun_from_dense(jobs, begin)
    histories = bayesian.train(subjects, epochs=left, measure=measure, **bayesian.rates(recipe))
    return [
        {**metrics(s.network(), s.job.data, measure, second, begin=0.75), "seconds": seconds(first, second)}
        for s, first, second in zip(subjects, firsts, histories, strict=True)
    ]
