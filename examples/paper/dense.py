"""The network as it is, trained without anything: the row "Original", and where other rows begin."""

from __future__ import annotations

from typing import Any

from torch import nn

from examples.paper.cell import Job
from examples.paper.networks import LENETS
from examples.paper.picking import Measure, metrics, seconds
from examples.paper.plain import adam
from examples.paper.plain import train as train_plain
from examples.paper.variational_sparsity import measure
from pyro_vbd.training.schedules import linear_decay

__all__ = ["pretrained", "train"]


def pretrained(job: Job) -> tuple[nn.Sequential, int, list[dict[str, Any]]]:
    """A network after the share ``dense`` of its epochs, the number of epochs that are left, and the history so far."""
    recipe = job.recipe
    net = LENETS[job.cell.size]()
    epochs = max(int(recipe["epochs"] * recipe["dense"]), 1)
    history = train_plain(
        net,
        job,
        phase="dense",
        epochs=epochs,
        optimizer=adam(recipe["lr"]),
        batch_size=recipe["batch_size"],
        lr_schedule=linear_decay(0.5),
    )
    return net, max(recipe["epochs"] - epochs, 1), history


def train(job: Job, measure: Measure = measure) -> dict[str, Any]:
    """Adam on the likelihood alone."""
    recipe = job.recipe
    net = LENETS[job.cell.size]()
    history = train_plain(
        net,
        job,
        phase="dense",
        epochs=recipe["epochs"],
        optimizer=adam(recipe["lr"]),
        batch_size=recipe["batch_size"],
        lr_schedule=linear_decay(recipe["decay_from"]),
        measure=measure,
    )
    return {**metrics(net, job.data, measure, history), "seconds": seconds(history)}
