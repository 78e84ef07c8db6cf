"""Structured Bayesian pruning: log-normal noise on every unit, closed where its signal-to-noise ratio is not above 1.

Neklyudov et al., *Structured Bayesian Pruning via Log-Normal Multiplicative Noise*, NeurIPS 2017, after the released code
(necludov/group-sparsity-sbp): a pretrained network, Adam with beta1 = 0.95 at 1e-3, constant to the half and linear to 0.
Their script for LeNet-500-300 is not released; here every unit has a gate, the inputs too, as their table counts.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from examples.paper.cell import Job, one_by_one
from examples.paper.dense import pretrained
from examples.paper.gated import folded, gated
from examples.paper.picking import metrics, seconds
from examples.paper.plain import train as train_plain
from examples.paper.structured_vbd import measure
from pyro_vbd import noise
from pyro_vbd.training.schedules import linear_decay

__all__ = ["train"]


@one_by_one
def train(job: Job) -> dict[str, Any]:
    """Train densely, then with gates; the network without the closed ones."""
    recipe = job.recipe
    plain, left, first = pretrained(job)
    net = gated(plain, noise.LogNormalGate)
    num_data = len(job.data.x)
    second = train_plain(
        net,
        job,
        phase="gates",
        epochs=left,
        optimizer=lambda net: torch.optim.Adam(
            net.parameters(), lr=recipe["lr"], betas=(recipe["beta1"], 0.999), fused=True
        ),
        batch_size=recipe["batch_size"],
        loss=lambda net, x, y: F.cross_entropy(net(x), y) + recipe["kl_weight"] * noise.penalty(net) / num_data,
        lr_schedule=linear_decay(recipe["decay_from"]),
        measure=_measure_folded,
    )
    return {**metrics(net, job.data, _measure_folded, second, begin=0.75), "seconds": seconds(first, second)}


def _measure_folded(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    assert isinstance(net, nn.Sequential)
    return measure(folded(net), x, y)
