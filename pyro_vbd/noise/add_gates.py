"""Gates put into a network that has none."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pyro_vbd.inputs import arguments
from pyro_vbd.modes import in_mode
from pyro_vbd.noise.attention import HeadwiseAttention
from pyro_vbd.noise.gate import Gate
from pyro_vbd.noise.transformer import open_transformers

__all__ = ["ACTIVATIONS", "After", "add_gates"]

#: A pattern of module names or several, a module type or several, or ``predicate(name, module)``.
After: TypeAlias = str | Sequence[str] | type[nn.Module] | tuple[type[nn.Module], ...] | Callable[[str, nn.Module], bool]

#: Where gates stand by default: behind what makes a layer nonlinear.
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid,
)  # fmt: skip
# What gives as many channels as it takes.
_KEEPS_WIDTH = (
    *ACTIVATIONS, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.LogSigmoid, nn.Threshold, nn.Softmax, nn.LogSoftmax,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity,
    nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm, nn.Upsample,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool1d, nn.LPPool2d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)  # fmt: skip


@torch.no_grad()
def add_gates(net: nn.Module, after: After = ACTIVATIONS, inputs: Any = None, dim: int = 1) -> nn.Module:
    """A copy of a network with a :class:`~pyro_vbd.noise.Gate` behind each of the modules named.

    A module ``m`` becomes ``nn.Sequential(m, Gate(...))`` under its old name; ``nn.MultiheadAttention`` becomes a
    :class:`~pyro_vbd.noise.HeadwiseAttention` with gates on its heads. Name ``nn.Flatten`` (or a module of your own) to
    gate the inputs.

    Args:
        net: any module; left as it was.
        after: module types, patterns of module names, or a predicate ``(name, module)``; by default the nonlinearities.
        inputs: example inputs (a tensor, or a tuple or dict of them), to see how wide each module's output is. They may
            be left out where the layer next to the module in an ``nn.Sequential`` tells.
        dim: the dimension of units or channels: 1; -1 for tokens.

    Raises:
        ValueError: if ``after`` names no module of the network, or it cannot be told how wide a module's output is.
        TypeError: for an attention module that cannot be gated.
    """
    gated = copy.deepcopy(net)
    open_transformers(gated)
    chosen = _predicate(after)
    names = [name for name, module in gated.named_modules() if name and chosen(name, module)]
    if not names:
        kinds = sorted({type(module).__name__ for module in net.modules()})
        raise ValueError(f"after={_in_words(after)} names no module of {type(net).__name__}, which is made of {kinds}")
    names = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    if tied := sorted(set(_all_names(gated, names)) - set(names)):
        raise ValueError(f"{tied} are the same modules as others: a gate is for one place; use a module for each")
    sizes = _observed_sizes(gated, names, inputs, dim) if inputs is not None else _neighbours_sizes(gated, names)
    for name in names:
        module = gated.get_submodule(name)
        if isinstance(module, nn.MultiheadAttention):
            new: nn.Module = HeadwiseAttention.from_torch(module)
        else:
            reference = next(gated.parameters(), torch.empty(0))
            gate = Gate(sizes[name], dim).to(device=reference.device, dtype=reference.dtype)
            new = nn.Sequential(module, gate).train(module.training)
        gated.set_submodule(name, new)
    return gated


def _predicate(after: After) -> Callable[[str, nn.Module], bool]:
    if isinstance(after, type):
        return lambda name, module: isinstance(module, after)
    if isinstance(after, tuple) and all(isinstance(part, type) for part in after):
        return lambda name, module: isinstance(module, after)
    if isinstance(after, str):
        return lambda name, module: fnmatchcase(name, after)
    if isinstance(after, Sequence):
        return lambda name, module: any(fnmatchcase(name, str(pattern)) for pattern in after)
    return after  # type: ignore[return-value]


def _in_words(after: After) -> str:
    types = (after,) if isinstance(after, type) else after
    if isinstance(types, tuple) and all(isinstance(part, type) for part in types):
        return " | ".join(part.__name__ for part in types if isinstance(part, type))
    return repr(after)


def _all_names(net: nn.Module, names: list[str]) -> list[str]:
    chosen = {id(net.get_submodule(name)) for name in names}
    return [name for name, module in net.named_modules(remove_duplicate=False) if id(module) in chosen]


def _observed_sizes(net: nn.Module, names: list[str], inputs: Any, dim: int) -> dict[str, int]:
    """How wide the outputs are in a run."""
    sizes: dict[str, list[int]] = {name: [] for name in names}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                sizes[name].append(output.shape[dim])

        return hook

    handles = [net.get_submodule(name).register_forward_hook(note(name)) for name in names]
    try:
        with in_mode(net, False):
            args, kwargs = arguments(inputs)
            net(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    for name, widths in sizes.items():
        if len(widths) != 1 and not isinstance(net.get_submodule(name), nn.MultiheadAttention):
            raise ValueError(
                f"module {name!r} ran {len(widths)} times in one run of the network, and a gate is for one place: name "
                "modules that run once, such as the norm before it, by after="
            )
    return {name: widths[0] for name, widths in sizes.items() if widths}


def _neighbours_sizes(net: nn.Module, names: list[str]) -> dict[str, int]:
    """How wide the outputs are by the layers beside them in an nn.Sequential."""
    sizes = {}
    for name in names:
        if isinstance(net.get_submodule(name), nn.MultiheadAttention):
            continue
        parent, _, key = name.rpartition(".")
        owner = net.get_submodule(parent)
        size = _size_beside(owner, key) if isinstance(owner, nn.Sequential) else None
        if size is None:
            raise ValueError(f"it cannot be told without a run how wide the output of {name!r} is: pass inputs=")
        sizes[name] = size
    return sizes


def _size_beside(owner: nn.Sequential, key: str) -> int | None:
    keys = list(owner._modules)
    position = keys.index(key)
    modules = list(owner)
    for module in reversed(modules[: position + 1]):  # behind the last layer, unless it is reshaped between
        if isinstance(module, nn.Flatten | nn.Unflatten):
            break
        for attribute in ("out_features", "out_channels", "num_features"):
            if hasattr(module, attribute):
                return int(getattr(module, attribute))
        if not isinstance(module, _KEEPS_WIDTH):
            return None
    for module in modules[position + 1 :]:  # in front of the next one
        for attribute in ("in_features", "in_channels", "num_features"):
            if hasattr(module, attribute):
                return int(getattr(module, attribute))
        if not isinstance(module, _KEEPS_WIDTH):
            return None
    return None
