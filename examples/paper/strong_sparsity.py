"""Weights removed as well as we know how: a KL that grows past the bound, and fine-tuning of what is left (Table 4-strong).

Against the published protocol (``variational_sparsity``): He's initialisation, which lets fewer weights start as good as
removed; batches of 200; a KL weight above 1 in the second half of the run, which trades likelihood for weights; and some
epochs of the deterministic network under the mask. All chosen on held-out data.
"""

from __future__ import annotations

from typing import Any

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Job
from examples.paper.measures import error
from examples.paper.networks import LENETS
from examples.paper.picking import seconds
from examples.paper.variational_sparsity import measure

__all__ = ["train"]


def train(job: Job, prior: vbd.priors.Prior) -> dict[str, Any]:
    """Train a LeNet under a prior; metrics of the fine-tuned network at each of two thresholds."""
    recipe, data = job.recipe, job.data
    model = vbd.Classifier(LENETS[job.cell.size](), prior, num_data=len(data.x))
    guide = vbd.VBDGuide(model, init_log_var=recipe["init_log_var"])
    history = bayesian.train(
        model,
        guide,
        job,
        epochs=recipe["epochs"],
        lr=recipe["lr"],
        batch_size=recipe["batch_size"],
        kl_schedule=vbd.schedules.piecewise(*recipe["kl"]),
        lr_schedule=vbd.schedules.linear_decay(),
        network=lambda: vbd.point_network(model, guide, recipe["threshold"]),
        measure=measure,
    )
    found: dict[str, Any] = {"error_dense": error(vbd.point_network(model, guide), data.x_test, data.y_test)}
    for threshold, suffix in ((recipe["threshold"], ""), (recipe["sparser_threshold"], "_sparser")):
        net = vbd.point_network(model, guide, threshold)
        found[f"error{suffix}_before"] = error(net, data.x_test, data.y_test)
        batches = vbd.Batches(data.x, data.y, batch_size=recipe["batch_size"])
        vbd.fine_tune(net, batches, epochs=recipe["fine_tuning"], lr=recipe["fine_tuning_lr"], progress=False)
        left = {key: value for key, value in measure(net, data.x_test, data.y_test).items() if key != "weights"}
        found.update({f"{key}{suffix}": value for key, value in left.items()})
        if data.x_val is not None and data.y_val is not None:
            found[f"validation_error{suffix}"] = error(net, data.x_val, data.y_val)
    if data.x_val is not None:
        found["picked"] = dict(found)  # of the last epoch: the fine-tuning is part of it
    return {**found, "seconds": seconds(history)}
