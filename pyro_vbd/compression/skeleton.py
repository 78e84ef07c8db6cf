"""A network's sizes as plain data, and modules made from them: what a file needs to hold beside the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from pyro_vbd.compression.select import Select
from pyro_vbd.compression.tracing import trace_calls
from pyro_vbd.frozen import frozen_as
from pyro_vbd.modes import in_mode
from pyro_vbd.noise.attention import HeadwiseAttention
from pyro_vbd.noise.gate import Gate
from pyro_vbd.noise.transformer import open_transformers

__all__ = ["build", "describe", "fill", "rebuild", "replace", "sizes", "sliced", "with_calls"]

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
    if found.get("affine") and module.bias is None:
        found["bias"] = False  # of a norm; earlier versions of torch have no such argument
    return found


def build(description: Mapping[str, Any], before: nn.Module) -> nn.Module:
    """A module of the given sizes, on the CPU, its numbers not set; frozen where the one before is."""
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in description.items()}
    kind = _TYPES[str(arguments.pop("type"))]
    if kind is Select:
        arguments["index"] = torch.zeros(arguments["index"], dtype=torch.long)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        new = kind(**arguments)
    return frozen_as(before, new)


@torch.no_grad()
def sliced(module: nn.Module, channels: Tensor, argument: str, **others: Any) -> nn.Module:
    """The module for some of its channels: parameters and buffers of that length are cut to them."""
    reference = next((value for value in module.state_dict().values() if value.is_floating_point()), torch.empty(0))
    channels = channels.to(reference.device)
    new = build({**sizes(module), argument: int(channels.sum()), **others}, module).to(reference)
    new.load_state_dict({
        name: value[channels] if value.dim() == 1 and len(value) == len(channels) else value
        for name, value in module.state_dict().items()
    })  # fmt: skip
    return new.train(module.training)


def describe(net: nn.Module) -> dict[str, Any]:
    """The sizes of all modules that a cut may replace, by name.

    Of a graph also the sizes written into its calls, its inputs, and the modules that it calls and does not look into.
    """
    modules: dict[str, Any] = {}
    for name, module in net.named_modules():
        if type(module) in _ARGUMENTS:
            modules[name] = sizes(module)
        elif type(module) is nn.Sequential and name:
            modules[name] = {"type": "Sequential", "length": len(module)}
    if not isinstance(net, fx.GraphModule):
        return {"modules": modules, "calls": {}, "keep": [], "inputs": []}
    calls = {node.name: numbers for node in net.graph.nodes if (numbers := _numbers_of(node))}
    inputs, called = ([str(n.target) for n in net.graph.nodes if n.op == op] for op in ("placeholder", "call_module"))
    return {"modules": modules, "calls": calls, "keep": called, "inputs": inputs}


@torch.no_grad()
def rebuild(net: nn.Module, description: Mapping[str, Any]) -> nn.Module:
    """A copy of a network with its modules in the sizes of a description.

    Args:
        net: the network before the cut; modules of other types are taken from it as they are.
        description: of :func:`describe`.

    Raises:
        ValueError: if the network has no place for a module of the description, or for a number in its code.
    """
    new, modules = copy.deepcopy(net), description["modules"]
    open_transformers(new)
    if "" in modules:
        if type(net) not in _ARGUMENTS:
            raise ValueError(f"{type(net).__name__} is no single {modules['']['type']}: it is of another network")
        return _resized(new, modules[""])
    if [sizes_["type"] for sizes_ in modules.values()] == ["Select", type(net).__name__]:
        new = nn.Sequential(nn.Identity(), new).train(net.training)  # a single layer reads some of its inputs
    graph = _graph(new, description) if description["calls"] else None  # of the modules that the code was written for
    for name, sizes_ in modules.items():
        try:
            here = new.get_submodule(name)
        except AttributeError as error:
            raise ValueError(f"{type(net).__name__} has no module {name!r}: it is of another network") from error
        if sizes_["type"] != "Sequential":
            replace(new, here, _resized(here, sizes_))
        elif type(here) is not nn.Sequential or len(here) != sizes_["length"]:
            replace(new, here, nn.Sequential(nn.Identity(), here).train(here.training))  # reads some of its inputs
    return with_calls(new, graph, _written(net, graph, description["calls"])) if graph else new


def replace(net: nn.Module, module: nn.Module, new: nn.Module) -> None:
    """Put a module into the place of another, under all names that this has in the network."""
    for name in [name for name, found in net.named_modules(remove_duplicate=False) if found is module]:
        net.set_submodule(name, new)


def _resized(module: nn.Module, sizes_: Mapping[str, Any]) -> nn.Module:
    """The module, or a new one where the sizes are others."""
    if type(module) in _ARGUMENTS and sizes(module) == sizes_:
        return module
    return build(sizes_, module).train(module.training)


@torch.no_grad()
def fill(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Let a network hold the numbers of a file, in the types that they have there; tensors that are shared stay so.

    Raises:
        RuntimeError: if names or shapes are others.
    """
    for name, tensor in net.state_dict(keep_vars=True).items():
        if name in state:
            tensor.data = tensor.data.to(state[name].dtype)
    net.load_state_dict(state)


def _graph(net: nn.Module, description: Mapping[str, Any]) -> fx.Graph:
    """The calls of a network, named as they were when it was cut: that follows from the code alone."""
    if isinstance(net, fx.GraphModule):
        return net.graph
    with in_mode(net, False):  # the mode may be part of the code
        return trace_calls(net, description["keep"], description["inputs"])


def with_calls(net: nn.Module, graph: fx.Graph, calls: Mapping[str, Any]) -> fx.GraphModule:
    """The network as a graph with other arguments in its calls, given as ``{call: {position or keyword: argument}}``."""
    for node in graph.nodes:
        changed = {**_arguments(node), **calls.get(node.name, {})}
        node.args = tuple(changed[str(position)] for position in range(len(node.args)))
        node.kwargs = {key: changed[key] for key in node.kwargs}
    return fx.GraphModule(net, graph, class_name=type(net).__name__).train(net.training)


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by their position or keyword."""
    return {**{str(position): value for position, value in enumerate(node.args)}, **node.kwargs}


def _numbers_of(node: fx.Node) -> dict[str, int]:
    return dict(pair for key, value in _arguments(node).items() for pair in _numbers(value, key))


def _numbers(value: Any, place: str) -> Iterator[tuple[str, int]]:
    """The whole numbers of an argument by their places: that of the argument, and those in the lists that they are in."""
    if isinstance(value, tuple | list):
        for index, part in enumerate(value):
            yield from _numbers(part, f"{place}.{index}")
    elif isinstance(value, int) and not isinstance(value, bool):
        yield place, value


def _renumbered(value: Any, place: str, numbers: Mapping[str, Any]) -> Any:
    """The argument with other numbers at their places."""
    if not isinstance(value, tuple | list):
        return numbers.get(place, value)
    parts = [_renumbered(part, f"{place}.{index}", numbers) for index, part in enumerate(value)]
    if parts == list(value):
        return value
    return tuple(parts) if isinstance(value, tuple) else parts


def _written(net: nn.Module, graph: fx.Graph, calls: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The arguments of calls with the numbers of a description in them."""
    nodes = {node.name: node for node in graph.nodes}
    written = {}
    for call, described in calls.items():
        numbers: dict[str, Any] = {}
        for place, number in described.items():
            # earlier versions wrote a list or tuple of numbers whole, as a list
            numbers |= {f"{place}.{i}": n for i, n in enumerate(number)} if isinstance(number, list) else {place: number}
        known = _numbers_of(nodes[call]) if call in nodes else {}
        for place in [place for place in numbers if place not in known]:
            raise ValueError(
                f"{type(net).__name__} has no call {call!r} with a number at {place!r}: it is of another network"
            )
        written[call] = {key: _renumbered(value, key, numbers) for key, value in _arguments(nodes[call]).items()}
    return written
