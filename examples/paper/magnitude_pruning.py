"""Magnitude pruning: the smallest weights of each layer go, the rest is trained again, and so on in rounds.

Han et al., *Learning both Weights and Connections for Efficient Neural Networks*, NeurIPS 2015: thresholds by layer, L2
regularisation, retraining at a tenth of the learning rate. The share that goes in each layer is the one they report; the
threshold follows from it.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import prune

from examples.paper.cell import Job, one_by_one
from examples.paper.networks import network
from examples.paper.picking import metrics, seconds
from examples.paper.plain import adam
from examples.paper.plain import train as train_plain
from examples.paper.variational_sparsity import measure
from pyro_vbd.training.schedules import linear_decay

__all__ = ["prune_round", "train"]


@one_by_one
def train(job: Job) -> dict[str, Any]:
    """Train densely, then prune and retrain in rounds; error and sparsity after the last."""
    recipe = job.recipe
    net = network(job.cell.size)
    retrained = max(int(recipe["epochs"] * (1 - recipe["dense"])) // recipe["rounds"], 1)
    dense = max(recipe["epochs"] - retrained * recipe["rounds"], 1)
    shared = {"batch_size": recipe["batch_size"], "measure": measure}
    optimizer = adam(recipe["lr"], recipe["weight_decay"])
    histories = [
        train_plain(net, job, phase="dense", epochs=dense, optimizer=optimizer, lr_schedule=linear_decay(0.5), **shared)
    ]
    optimizer = adam(recipe["lr"] * recipe["retrain_lr"], recipe["weight_decay"])
    for turn in range(recipe["rounds"]):
        prune_round(net, recipe["sparsity"], recipe["rounds"])
        histories.append(train_plain(net, job, phase=f"round{turn}", epochs=retrained, optimizer=optimizer, **shared))
    found = metrics(net, job.data, measure, histories[-1])
    return {**found, "seconds": seconds(*histories)}


def prune_round(net: nn.Module, sparsity: list[float], rounds: int) -> None:
    """Take the smallest weights away from each layer, the same share of those left in each of the rounds.

    After ``rounds`` of it the share ``sparsity`` of each layer is gone. The masks are torch.nn.utils.prune's, and stay.
    """
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer, share in zip(layers, sparsity, strict=True):
        if prune.is_pruned(layer):  # its weight is as old as its last forward pass, and older where a run goes on
            layer.weight = layer.weight_orig * layer.weight_mask
        prune.l1_unstructured(layer, "weight", amount=1.0 - (1.0 - share) ** (1.0 / rounds))
