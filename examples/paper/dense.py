"""The network as it is, trained without anything: the row "Original", and where other rows begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from examples.paper import bayesian
from examples.paper.cell import Job, one_by_one
from examples.paper.networks import network
from examples.paper.picking import Measure, metrics, seconds
from examples.paper.plain import adam
from examples.paper.plain import train as train_plain
from examples.paper.variational_sparsity import measure
from pyro_vbd.training.schedules import linear_decay

__all__ = ["begun_from_dense", "pretrained", "train"]


def pretrained(job: Job) -> tuple[nn.Sequential, int, list[dict[str, Any]]]:
    """A network after the share ``dense`` of its epochs, the number of epochs that are left, and the history so far."""
    epochs = max(int(job.recipe["epochs"] * job.recipe["dense"]), 1)
    net, history = _trained(job, epochs, 0.5)
    return net, max(job.recipe["epochs"] - epochs, 1), history


def begun_from_dense(
    jobs: Sequence[Job], begin: Callable[[Job, nn.Sequential], bayesian.Subject]
) -> tuple[list[bayesian.Subject], int, list[list[dict[str, Any]]]]:
    """What is trained for each job, begun from its pretrained network; the epochs left, and the histories so far."""
    left, histories = 0, []

    def pretrained_first(job: Job) -> bayesian.Subject:
        nonlocal left
        net, left, history = pretrained(job)
        histories.append(history)
        return begin(job, net)

    return bayesian.begun(jobs, pretrained_first), left, histories


@one_by_one
def train(job: Job, measure: Measure = measure) -> dict[str, Any]:
    """Adam on the likelihood alone."""
    net, history = _trained(job, job.recipe["epochs"], job.recipe["decay_from"], measure)
    return {**metrics(net, job.data, measure, history), "seconds": seconds(history)}


def _trained(
    job: Job, epochs: int, decay_from: float, measure: Measure | None = None
) -> tuple[nn.Sequential, list[dict[str, Any]]]:
    net = network(job.cell.size)
    history = train_plain(
        net,
        job,
        phase="dense",
        epochs=epochs,
        optimizer=adam(job.recipe["lr"]),
        batch_size=job.recipe["batch_size"],
        lr_schedule=linear_decay(decay_from),
        measure=measure,
    )
    return net, history
