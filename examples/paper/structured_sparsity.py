r"""Structured sparsity learning: a group lasso on the rows and columns, filters and channels of every layer.

Wen et al., *Learning Structured Sparsity in Deep Neural Networks*, NeurIPS 2016:
:math:`L = L_D + \lambda \sum_l \sum_g \lVert w_g^{(l)} \rVert_2` with a group for each output and each input of a layer.
Adam never puts a group at 0, so the groups are shrunk by the penalty's proximal step after each of its steps; then the
groups that are gone stay gone, and the rest is trained on without the penalty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from examples.paper.cell import Job, one_by_one
from examples.paper.networks import network
from examples.paper.picking import metrics, seconds
from examples.paper.plain import adam
from examples.paper.plain import train as train_plain
from examples.paper.structured_vbd import measure
from pyro_vbd.training.schedules import linear_decay

__all__ = ["keep_zeros", "shrink", "shrink_groups", "train"]


def shrink(weight: Tensor, step: float, dim: int) -> Tensor:
    r"""The proximal step of ``step`` times the sum of group norms: :math:`w_g \max(0, 1 - s / \lVert w_g \rVert)`.

    Args:
        weight: of any shape.
        step: learning rate times lambda.
        dim: each index of this dimension is a group.
    """
    norms = weight.movedim(dim, 0).flatten(1).norm(dim=1)
    factors = (1.0 - step / norms.clamp_min(torch.finfo(weight.dtype).tiny)).clamp_min(0.0)
    shape = [1] * weight.dim()
    shape[dim] = -1
    return weight * factors.reshape(shape)


@torch.no_grad()
def shrink_groups(net: nn.Module, step: float) -> None:
    """Shrink the inputs and the outputs of each layer; the outputs of the last layer are the classes, and stay."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers:
        weight = shrink(layer.weight, step, 1)
        layer.weight.copy_(weight if layer is layers[-1] else shrink(weight, step, 0))


def keep_zeros(net: nn.Module) -> None:
    """Hold the weights that are 0 at 0 from here on, by the masks of torch.nn.utils.prune."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            prune.custom_from_mask(layer, "weight", (layer.weight.detach() != 0).to(layer.weight))


@one_by_one
def train(job: Job) -> dict[str, Any]:
    """Train under the group lasso, then without it on what is left."""
    recipe = job.recipe
    net = network(job.cell.size).to(job.device)
    sparse = max(int(recipe["epochs"] * recipe["lasso"]), 1)
    lr, decay = recipe["lr"], linear_decay(0.5)
    per_epoch = -(-len(job.data.x) // recipe["batch_size"])
    shared = {"batch_size": recipe["batch_size"], "lr_schedule": decay}
    first = train_plain(
        net,
        job,
        phase="lasso",
        epochs=sparse,
        optimizer=adam(lr),
        after_step=lambda step: shrink_groups(net, recipe["lambda"] * lr * decay(step // per_epoch, sparse)),
        **shared,
    )
    keep_zeros(net)
    second = train_plain(
        net,
        job,
        phase="tune",
        epochs=max(recipe["epochs"] - sparse, 1),
        optimizer=adam(lr * recipe["tune_lr"]),
        measure=measure,
        **shared,
    )
    return {**metrics(net, job.data, measure, second), "seconds": seconds(first, second)}
