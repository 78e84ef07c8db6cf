"""A network under many draws of its weights at once (vectorised particles, parallel predictions): vmap, or a loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.utils._pytree import tree_map

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor

__all__ = ["at_each_draw", "leading_dimensions", "needs_loop"]


def leading_dimensions(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> torch.Size:
    """The dimensions that draws of weights have in front of the weights' own; none for a single draw.

    A weight that a handler holds at one value has none of those that the others have.
    """
    leads = {weight.shape[: weight.dim() - len(shapes[name])] for name, weight in weights.items()}
    return torch.broadcast_shapes(*leads) if leads else torch.Size()


def at_each_draw(
    call: Callable[[dict[str, Any]], Any],
    net: nn.Module,
    lead: torch.Size,
    weights: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
) -> Any:
    """The outputs of a network at many draws of its weights, with the draws' dimensions in front.

    Args:
        call: the output at one draw.
        net: what it calls.
        lead: dimensions of the draws, at least one.
        weights: draws, or where a layer works with moments Gaussians, of shape ``lead + shapes[name]`` or without ``lead``.
        shapes: of the weights themselves.

    Returns:
        The output, of shape ``lead[:-1] + output.shape`` with two dimensions or more: the data stand where the last of the
        model's plates does. With one ``lead + output.shape``.

    Raises:
        ValueError: if a loop is needed, and the output holds something else than tensors.
    """
    flat = {name: _flatten(value, lead, shapes[name]) for name, value in weights.items()}

    def once(parts: dict[str, Any]) -> Any:
        drawn = {name: type(weights[name])(*part) if len(part) == 2 else part[0] for name, part in parts.items()}
        output = call(drawn)
        for name, value in drawn.items():
            if isinstance(value, GaussianTensor):
                weights[name].used.update(value.used)  # type: ignore[attr-defined]
        return output

    if needs_loop(net):
        one_by_one = [once({k: tuple(t[i] for t in part) for k, part in flat.items()}) for i in range(lead.numel())]
        output = tree_map(_stack, *one_by_one)
    else:
        output = torch.vmap(once, randomness="different")(flat)
    return tree_map(lambda value: value.reshape(lead[:-1] + value.shape[1:]) if len(lead) > 1 else value, output)


def needs_loop(net: nn.Module) -> bool:
    """Whether vmap cannot carry a batch of weights through a network, or takes longer than a loop.

    It cannot through recurrent layers, LSTM cells and norms that update their buffers; it takes longer where a CPU runs the
    convolutions, which become ones with a group for each draw.
    """
    return any(
        isinstance(module, nn.RNNBase | nn.LSTMCell)
        or (isinstance(module, _NormBase | _SpectralNorm) and module.training)
        or (isinstance(module, _ConvNd) and module.weight.device.type == "cpu")
        for module in net.modules()
    )


def _flatten(value: Tensor, lead: torch.Size, shape: torch.Size) -> tuple[Tensor, ...]:
    parts = (value.loc, value.variance) if isinstance(value, GaussianTensor) else (value,)
    return tuple(part.expand(lead + shape).flatten(0, len(lead) - 1) for part in parts)


def _stack(*parts: Any) -> Tensor:
    if not isinstance(parts[0], Tensor):
        raise ValueError(
            f"the network returns a {type(parts[0]).__name__}, which has no room for many draws at once: let it return "
            "tensors, or use vectorize_particles=False or parallel=False"
        )
    return torch.stack(parts)
