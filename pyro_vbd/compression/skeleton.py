"""A network's sizes as plain data, and modules made from them: what a file needs to hold beside the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from pyro_vbd.compression.select import Select
from pyro_vbd.compression.tracing import trace_calls
from pyro_vbd.modes import in_mode
from pyro_vbd.noise.attention import HeadwiseAttention
from pyro_vbd.noise.gate import Gate
from pyro_vbd.noise.transformer import open_transformers

__all__ = ["build", "describe", "rebuild", "sizes", "sliced", "with_calls"]

_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias", "padding_mode")
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")

# Arguments that make a module, each an attribute of it ("bias": whether it has one).
_ARGUMENTS: Mapping[type[nn.Module], tuple[str, ...]] = MappingProxyType(
    {
        nn.Linear: ("in_features", "out_features", "bias"),
        **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONV),
        **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), (*_CONV, "output_padding")),
        **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _NORM),
        **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _NORM),
        nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
        nn.PReLU: ("num_parameters",),
        nn.Embedding: ("num_embeddings", "embedding_dim", "padding_idx"),
        nn.Identity: (),
        Gate: ("size", "dim"),
        Select: ("index", "dim"),
        HeadwiseAttention: ("embed_dim", "num_heads", "head_dim", "bias", "dropout", "gated"),
    }
)
# How an argument is read off a module that does not keep it as it was given.
_READ: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "bias": lambda module: getattr(module, "out_proj", module).bias is not None,
        "gated": lambda module: isinstance(module.gate, Gate),
        "index": lambda module: len(module.index),
    }
)
_TYPES: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in _ARGUMENTS}


def sizes(module: nn.Module) -> dict[str, Any]:
    """The type's name and the arguments of a module, as numbers, strings and lists."""
    found: dict[str, Any] = {"type": type(module).__name__}
    for argument in _ARGUMENTS[type(module)]:
        value = _READ[argument](module) if argument in _READ else getattr(module, argument)
        found[argument] = list(value) if isinstance(value, tuple) else value
    return found


def build(description: Mapping[str, Any]) -> nn.Module:
    """A module of the given sizes, on the CPU, its numbers not set."""
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in description.items()}
    kind = _TYPES[str(arguments.pop("type"))]
    if kind is Select:
        arguments["index"] = torch.zeros(arguments["index"], dtype=torch.long)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return kind(**arguments)


@torch.no_grad()
def sliced(module: nn.Module, channels: Tensor, argument: str, **others: Any) -> nn.Module:
    """The module for some of its channels: parameters and buffers of that length are cut to them."""
    reference = next((value for value in module.state_dict().values() if value.is_floating_point()), torch.empty(0))
    channels = channels.to(reference.device)
    new = build({**sizes(module), argument: int(channels.sum()), **others}).to(reference)
    new.load_state_dict({
        name: value[channels] if value.dim() == 1 and len(value) == len(channels) else value
        for name, value in module.state_dict().items()
    })  # fmt: skip
    return new.train(module.training)


def describe(net: nn.Module) -> dict[str, Any]:
    """The sizes of all modules that a cut may replace, by name, and the sizes written into a graph's calls."""
    modules: dict[str, Any] = {}
    for name, module in net.named_modules():
        if type(module) in _ARGUMENTS:
            modules[name] = sizes(module)
        elif type(module) is nn.Sequential and name:
            modules[name] = {"type": "Sequential", "length": len(module)}
    if not isinstance(net, fx.GraphModule):
        return {"modules": modules, "calls": {}, "keep": [], "inputs": []}
    calls = {node.name: args for node in net.graph.nodes if (args := _literals(node.args))}
    inputs = [str(node.target) for node in net.graph.nodes if node.op == "placeholder"]
    return {"modules": modules, "calls": calls, "keep": net.meta.get("keep", []), "inputs": inputs}


@torch.no_grad()
def rebuild(net: nn.Module, description: Mapping[str, Any]) -> nn.Module:
    """A copy of a network with its modules in the sizes of a description.

    Args:
        net: the network before the cut; modules of other types are taken from it as they are.
        description: of :func:`describe`.

    Raises:
        ValueError: if the network has no place for a module of the description.
    """
    new = copy.deepcopy(net)
    open_transformers(new)
    if "" in description["modules"]:
        return build(description["modules"][""])
    for name, sizes_ in description["modules"].items():
        parent, _, key = name.rpartition(".")
        try:
            owner = new.get_submodule(parent)
        except AttributeError as error:
            raise ValueError(f"{type(net).__name__} has no module {parent!r}: it is of another network") from error
        here = owner._modules.get(key)
        if sizes_["type"] == "Sequential":
            if type(here) is not nn.Sequential or len(here) != sizes_["length"]:
                owner.add_module(key, nn.Sequential().train(owner.training))
        elif type(here) not in _ARGUMENTS or sizes(here) != sizes_:  # type: ignore[arg-type]
            module = build(sizes_)
            owner.add_module(key, module.train(owner.training))
    if description["calls"]:
        # names of calls follow from the code alone
        keep, inputs = description["keep"], description["inputs"]
        with in_mode(new, False):  # as it was cut: the mode may be part of the code
            graph = new.graph if isinstance(new, fx.GraphModule) else trace_calls(new, keep, inputs)
        return with_calls(new, graph, description["calls"], keep)
    return new


def with_calls(net: nn.Module, graph: fx.Graph, calls: Mapping[str, Any], keep: Sequence[str]) -> fx.GraphModule:
    """The network as a graph with other sizes in its calls, given as ``{call: {position: size}}``."""
    for node in graph.nodes:
        changed = {int(position): size for position, size in calls.get(node.name, {}).items()}
        node.args = tuple(changed.get(position, value) for position, value in enumerate(node.args))
    new = fx.GraphModule(net, graph, class_name=type(net).__name__)
    new.meta["keep"] = list(keep)
    return new.train(net.training)


def _literals(args: Any) -> dict[str, Any]:
    return {str(i): list(a) if isinstance(a, tuple) else a for i, a in enumerate(args) if _is_literal(a)}


def _is_literal(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return bool(value) and all(isinstance(part, int) for part in value)
    return isinstance(value, int) and not isinstance(value, bool)
