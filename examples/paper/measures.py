"""What the tables hold: test error, how many weights are left, and how many neurons."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import pyro_vbd as vbd

__all__ = ["error", "structure", "weight_sparsity"]


@torch.no_grad()
def error(net: nn.Module, x: Tensor, y: Tensor, batch_size: int = 1000) -> float:
    """Share of wrong classes, in per cent; the network runs in evaluation mode."""
    was_training = net.training
    net.eval()
    batches = vbd.Batches(x, y, batch_size=batch_size, shuffle=False)
    wrong = sum(int((net(inputs).argmax(-1) != labels).sum()) for inputs, labels in batches)
    net.train(was_training)
    return 100.0 * wrong / len(y)


@torch.no_grad()
def weight_sparsity(net: nn.Module) -> dict[str, Any]:
    """Weights left, without biases: their number, the compression |W| / |W != 0|, and the share gone by layer in per cent.

    Weights are counted as the layers use them: those of ``torch.nn.utils.prune`` and of parametrizations included.
    """
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    left = [int(weight.count_nonzero()) for weight in weights]
    total = sum(weight.numel() for weight in weights)
    return {
        "weights": sum(left),
        "compression": total / max(sum(left), 1),
        "sparsity": [100.0 * (1.0 - n / weight.numel()) for n, weight in zip(left, weights, strict=True)],
    }


@torch.no_grad()
def structure(net: nn.Module, x: Tensor) -> dict[str, Any]:
    """Units left in each layer, and the weights and multiply-adds of the network that they make, densely.

    A unit is left if a weight that is not 0 leads into it from a unit that is left, and one leads out to one that is
    left. Units are counted as in the paper's Table 5: the inputs of linear layers and the filters of convolutions, in
    order, without an image's channels. A layer's weights are counted without biases; a convolution's multiply once a
    place of its output.

    Args:
        net: a sequence of linear layers, convolutions, and modules without weights between them.
        x: one datum, of shape ``(1, ...)``.
    """
    layers, places = _layers(net, x)
    links = [
        layer.weight.flatten(2).count_nonzero(2) > 0 if layer.weight.dim() > 2 else layer.weight != 0 for layer in layers
    ]
    inputs = [torch.ones(link.size(1), dtype=torch.bool, device=link.device) for link in links]
    outputs = torch.ones(links[-1].size(0), dtype=torch.bool, device=links[-1].device)
    for _ in range(2 * len(links)):  # what is gone takes others with it, layer by layer
        for index, link in enumerate(links):
            if index:
                reached = (links[index - 1] & inputs[index - 1]).any(1)
                inputs[index] = inputs[index] & reached.repeat_interleave(len(inputs[index]) // len(reached))
            read = outputs if index + 1 == len(links) else _by_channel(inputs[index + 1], link.size(0))
            inputs[index] = inputs[index] & (link & read.unsqueeze(1)).any(0)
    units, weights, macs = [], 0, 0
    for index, (layer, alive) in enumerate(zip(layers, inputs, strict=True)):
        is_linear = isinstance(layer, nn.Linear)
        if is_linear:
            units.append(int(alive.sum()))
        behind = outputs if index + 1 == len(links) else _by_channel(inputs[index + 1], layer.weight.size(0))
        if not is_linear:
            units.append(int(behind.sum()))
        count = int(alive.sum()) * int(behind.sum()) * layer.weight[0, 0].numel()
        weights += count
        macs += count * places[index]
    return {"neurons": units, "weights": weights, "macs": macs}


def _by_channel(alive: Tensor, channels: int) -> Tensor:
    """Which of the units of the layer before have any number left among those they are flattened to."""
    return alive.reshape(channels, -1).any(1)


def _layers(net: nn.Module, x: Tensor) -> tuple[list[nn.Linear | nn.Conv2d], list[int]]:
    """The layers with weights in order, and in how many places each stands."""
    layers: list[nn.Linear | nn.Conv2d] = []
    places: list[int] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        layers.append(module)  # type: ignore[arg-type]
        places.append(output[0, 0].numel())

    hooks = [m.register_forward_hook(note) for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    try:
        net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return layers, places
