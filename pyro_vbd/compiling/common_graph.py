"""One graph for several traces that take the same steps: numbers in which they differ become its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from pyro_vbd.compiling.tracing import Trace

__all__ = ["Unlike", "with_common_graph"]

aten = torch.ops.aten


class Unlike(Exception):
    """Raised where traces differ in more than tensors and numbers, with the place."""


def with_common_graph(traces: Sequence[Trace]) -> list[Trace]:
    """The traces with the graph of the first for all, in which numbers that differ have become constants of each.

    A prior's hyperparameters, factors like N/B, and whatever else is added, multiplied or filled in as a number may
    differ. The graphs given are changed in place.

    Raises:
        Unlike: where the graphs differ in anything else, or tensors in shape or dtype.
    """
    first = traces[0]
    numbers: list[list[Tensor]] = [[] for _ in traces]
    for nodes in _in_step([trace.graph for trace in traces]):
        place = _PLACES.get(nodes[0].target)
        if place is None:
            continue
        values = [node.args[place] for node in nodes]
        if all(isinstance(value, int | float) for value in values) and any(v != values[0] for v in values):
            for trace, found, value, node in zip(traces, numbers, values, nodes, strict=True):
                found.append(_take_out(trace.graph, node, place, value))
    for number, trace in enumerate(traces):
        if difference := _difference(first, trace):
            raise Unlike(f"number {number} differs from number 0 in more than tensors and numbers: {difference}")
    return [
        replace(trace, graph=first.graph, constants=[*trace.constants, *found])
        for trace, found in zip(traces, numbers, strict=True)
    ]


# --- inside ----------------------------------------------------------------------------------------------------------

#: Where an operator has a number that may as well be a tensor of one element.
_PLACES: dict[Any, int] = {
    aten.new_full.default: 2, aten.full.default: 1,
    aten.add.Tensor: 1, aten.sub.Tensor: 1, aten.mul.Tensor: 1, aten.div.Tensor: 1,
}  # fmt: skip


def _in_step(graphs: Sequence[fx.GraphModule]) -> Iterator[tuple[fx.Node, ...]]:
    """The nodes of graphs side by side.

    Raises:
        Unlike: where they are of different operators.
    """
    lists = [list(graph.graph.nodes) for graph in graphs]
    for nodes in zip(*lists, strict=False):  # the outputs, which are the last, meet if all are of one length
        if others := [node.target for node in nodes if (node.op, str(node.target)) != (nodes[0].op, str(nodes[0].target))]:
            raise Unlike(f"where one has {nodes[0].target}, another has {others[0]}")
        yield nodes


def _take_out(graph: fx.GraphModule, node: fx.Node, place: int, value: Any) -> Tensor:
    """Make a number an input, the last one, of the graph; the number as a tensor."""
    nodes, like = graph.graph, node.meta["val"]
    inputs = [each for each in nodes.nodes if each.op == "placeholder"]
    with nodes.inserting_after(inputs[-1]):
        number = nodes.placeholder(f"number_{len(inputs)}")
    if node.target in (aten.new_full.default, aten.full.default):
        with nodes.inserting_before(node):
            spread = nodes.call_function(aten.expand.default, (number, list(like.shape)))
            filled = nodes.call_function(aten.clone.default, (spread,))
        node.replace_all_uses_with(filled)
        nodes.erase_node(node)
    else:
        node.update_arg(place, number)
    graph.recompile()
    return torch.tensor(value, dtype=like.dtype, device=like.device)


def _difference(one: Trace, other: Trace) -> str:
    """In what two traces differ beside the values of their tensors."""
    for ours, theirs in zip(one.graph.code.splitlines(), other.graph.code.splitlines(), strict=False):
        if ours != theirs:
            return f"{theirs.split(';')[0].strip()!r}, and there {ours.split(';')[0].strip()!r}"
    if one.graph.code != other.graph.code or one.sites != other.sites:
        return f"its sites are {other.sites}, and there {one.sites}"
    for mine, its in zip(one.tensors, other.tensors, strict=True):
        if _kind(mine) != _kind(its):
            return f"a tensor is {_kind(its)}, and there {_kind(mine)}"
    return ""


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}"
