"""The dropouts of Tables 1 to 3: the same network with noise before, around or instead of its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.paper.cell import Job, one_by_one
from examples.paper.measures import error
from examples.paper.picking import metrics, seconds
from examples.paper.plain import adam
from examples.paper.plain import train as train_plain
from pyro_vbd import noise
from pyro_vbd.training.schedules import linear_decay

__all__ = ["NOISES", "limit_norms", "measure", "train", "with_noise"]

#: ``noise(layer, rate, recipe)``: the modules that stand for a layer; ``rate`` is the dropout rate of its inputs.
Noise = Callable[[nn.Module, float, Mapping[str, Any]], list[nn.Module]]

NOISES: Mapping[str, Noise] = {
    "none": lambda layer, rate, recipe: [layer],
    "bernoulli": lambda layer, rate, recipe: [nn.Dropout(rate), layer],
    "gaussian": lambda layer, rate, recipe: [noise.GaussianNoise(rate), layer],
    "gaussian-dropout": lambda layer, rate, recipe: [noise.GaussianDropout(layer, rate)],
    "concrete": lambda layer, rate, recipe: [noise.ConcreteDropout(layer, 0.1, length_scale=recipe["length_scale"])],
    "adversarial": lambda layer, rate, recipe: [nn.Dropout(rate), layer],
}


def with_noise(net: nn.Sequential, name: str, rates: Sequence[float], recipe: Mapping[str, Any]) -> nn.Sequential:
    """A network with noise at each layer that has weights.

    Args:
        net: its layers in order; they are used, not copied.
        name: a key of ``NOISES``.
        rates: the dropout rate of the inputs of each layer with weights, the last one for all further layers; where it is
            0 the layer stays as it is. The adversary, if any, stands before the last layer.
        recipe: further numbers of the noise.
    """
    modules: list[nn.Module] = []
    weighted = [m for m in net if isinstance(m, nn.Linear | nn.Conv2d)]
    for module in net:
        if module not in weighted:
            modules.append(module)
            continue
        index = weighted.index(module)
        rate = rates[min(index, len(rates) - 1)]
        if name == "adversarial" and module is weighted[-1]:
            modules.append(noise.AdversarialDropout(recipe["delta"]))
        modules += NOISES[name](module, rate, recipe) if rate else [module]
    return nn.Sequential(*modules)


def measure(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """The error."""
    return {"error": error(net, x, y)}


@one_by_one
def train(job: Job, network: Callable[[str], nn.Sequential], name: str) -> dict[str, Any]:
    """Train a network with noise; its error without.

    Args:
        job: what to train on.
        network: makes the network of a size.
        name: a key of ``NOISES``.
    """
    recipe = job.recipe
    net = with_noise(network(job.cell.size), name, recipe["rates"], recipe)
    num_data = len(job.data.x)
    learned = any(isinstance(module, noise.Penalised) for module in net.modules())
    weight = recipe.get("adversarial_weight", 0.0)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if name == "adversarial":
            return noise.adversarial_loss(net, x, y, weight)
        likelihood = F.cross_entropy(net(x), y)
        return likelihood + noise.penalty(net) / num_data if learned else likelihood

    history = train_plain(
        net,
        job,
        phase="train",
        epochs=recipe["epochs"],
        optimizer=adam(recipe["lr"]),
        batch_size=recipe["batch_size"],
        loss=loss,
        lr_schedule=linear_decay(recipe["decay_from"]),
        after_step=(lambda step: limit_norms(net, recipe["max_norm"])) if recipe.get("max_norm") else None,
        measure=measure,
    )
    rates = [float(m.p.detach()) for m in net.modules() if isinstance(m, noise.ConcreteDropout)]
    found = metrics(net, job.data, measure, history)
    return {**found, **({"rates": rates} if rates else {}), "seconds": seconds(history)}


@torch.no_grad()
def limit_norms(net: nn.Module, bound: float) -> None:
    """Max-norm: the incoming weights of each unit or filter are scaled down to an L2 norm of at most ``bound``.

    Srivastava et al. 2014, section 5.1.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.copy_(layer.weight.renorm(2, 0, bound))
