"""Open gates multiplied into the weights of the layers behind them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from pyro_vbd.compression.analysis import is_kept, shared_modules
from pyro_vbd.noise.gate import Gate

__all__ = ["absorb_gates"]

# Modules f with f(w x) = w f(x): for any w; for w >= 0; for any w on channels; for w >= 0 on channels.
_ANY = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_POSITIVE = (nn.ReLU, nn.LeakyReLU)
_MEANS = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
_MAXIMA = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def absorb_gates(traced: fx.GraphModule, keep: Sequence[str] = ()) -> None:
    r"""Let each gate be 0 or 1, where all layers behind it can take its factors: :math:`W (w \odot x) = (W w) x`.

    A factor passes pooling by means, dropout and flatten; pooling by maxima only if no factor of the gate is negative. A
    gate whose factors cannot pass stays as it is, and so does one in front of a layer whose weight is not its own alone, or
    is computed anew at each call.

    Args:
        traced: the network's calls, with the shapes of their results; its gates and layers are changed.
        keep: patterns of names of modules to leave as they are.
    """
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    modules = {node: traced.get_submodule(str(node.target)) for node in calls}
    whole = shared_modules(traced) | {module for node, module in modules.items() if is_kept(node, keep)}
    for node, gate in modules.items():
        if not isinstance(gate, Gate) or gate in whole:
            continue
        layers = _layers_behind(node, gate, modules)
        if not layers or not whole.isdisjoint(layers) or not all(_has_own_weight(layer) for layer in layers):
            continue
        factors = gate.weight.where(gate.weight != 0, 1.0)
        for layer in layers:
            _scale_inputs(layer, factors)
        gate.weight.copy_((gate.weight != 0).to(gate.weight))


def _layers_behind(node: fx.Node, gate: Gate, modules: dict[fx.Node, nn.Module]) -> list[nn.Module]:
    """The layers that read the gate's output, or none where something else does."""
    found: list[nn.Module] = []
    for user in node.users:
        module = modules.get(user)
        rank = len(node.meta["value"].shape)
        channels_first = gate.dim % rank == 1
        if isinstance(module, _LAYERS) and _reads_channels(module, node, gate):
            found.append(module)
            continue
        positive = bool((gate.weight >= 0).all())
        passes = isinstance(module, _ANY) or (positive and isinstance(module, _POSITIVE))
        passes |= channels_first and (isinstance(module, _MEANS) or (positive and isinstance(module, _MAXIMA)))
        passes |= isinstance(module, nn.Flatten) and channels_first and module.start_dim == 1 and module.end_dim == -1
        behind = _layers_behind(user, gate, modules) if passes else []
        if not behind:
            return []
        found += behind
    return found


def _has_own_weight(layer: nn.Module) -> bool:
    """Whether the weight is what the layer multiplies by, and a parameter."""
    return type(layer) in _LAYERS and "weight" in layer._parameters


def _reads_channels(layer: nn.Module, source: fx.Node, gate: Gate) -> bool:
    """Whether the layer's inputs are the gate's channels, each once or at several places."""
    rank = len(source.meta["value"].shape)
    if isinstance(layer, nn.Linear):
        return rank == 2 or gate.dim % rank == rank - 1
    return gate.dim % rank == 1


def _scale_inputs(layer: nn.Module, factors: Tensor) -> None:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    groups = int(getattr(layer, "groups", 1))
    columns = factors.repeat_interleave(weight.size(1) * groups // len(factors)).view(groups, 1, -1)
    scaled = weight.view(groups, -1, weight.size(1), weight[0, 0].numel()) * columns[..., None]
    weight.copy_(scaled.view_as(weight))
