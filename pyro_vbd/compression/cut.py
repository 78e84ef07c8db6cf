r"""A smaller network that computes the same function: units, channels, inputs and heads without effect are cut out.

A unit goes where each of its numbers is either not read or a constant that its readers have taken into their biases. The
weights alone say so: it does not matter whether they are 0 by a mask, a prior shared by a unit, or a closed gate.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vbd.compression.absorb_gates import absorb_gates
from pyro_vbd.compression.analysis import analyse
from pyro_vbd.compression.differences import difference, tensors
from pyro_vbd.compression.joining import ElementwiseStep
from pyro_vbd.compression.operation import Barrier, Layer, Operation
from pyro_vbd.compression.skeleton import replace, with_calls
from pyro_vbd.compression.tracing import call_network, trace
from pyro_vbd.compression.units import Axis, Units
from pyro_vbd.modes import in_mode
from pyro_vbd.noise.transformer import open_transformers
from pyro_vbd.placement import placed
from pyro_vbd.site_patterns import idle

__all__ = ["Cut", "cut"]

logger = logging.getLogger(__name__)

#: How far the cut network may be from the network, relative to its largest output: float32 sums in another order; and in
#: roundings, where the network computes in half precision.
_TOLERANCE, _ROUNDINGS = 1e-4, 8.0


@dataclass(frozen=True)
class Cut:
    """A smaller network, and what could not go."""

    #: The smaller one.
    network: nn.Module
    #: Units before and after, by layer.
    units: dict[str, tuple[int, int]]
    #: By layer, in words: units without any weight that had to stay, and why.
    stayed: dict[str, str]
    #: The largest difference between the outputs of the two on the example inputs, over the largest output.
    difference: float


@torch.no_grad()
def cut(net: nn.Module, inputs: Any, *, keep: Sequence[str] = (), allow_dead: bool = False) -> Cut:
    """Cut out of a network what has no effect on its outputs in evaluation mode.

    Exact through linear layers, convolutions (grouped and depthwise ones too), batch, instance, group and layer norm,
    pooling, flatten and other reshapes, residual sums, products, concatenation, dropout, pointwise nonlinearities,
    attention, and gates. Anything else is left whole, with all that it reads.

    A unit that emits a constant c (a bias, a norm's shift) is folded into the next layer where that is exact:
    :math:`b + W c` for a linear layer or an unpadded convolution. Where it is not, it stays, and ``stayed`` says so.

    Args:
        net: a network, some of whose weights are 0; left as it was.
        inputs: example inputs: a tensor, or a tuple or dict of them.
        keep: patterns of names of modules to leave whole.
        allow_dead: what becomes of a layer without any unit that matters: an error, or (if true) one unit of zeros, which
            makes a constant of the branch, or of the network, that it stands in.

    Returns:
        The network as a module of its old class with smaller modules in it; or, where a size that changes is written into
        its code (``x.view(-1, 800)``), as a ``torch.fx.GraphModule``.

    Raises:
        ValueError: for a layer that would die whole, by its name; a pattern of ``keep`` that names no module; or inputs on
            which the network gives nothing but NaN.
        TypeError: for a module that cannot be cut, or code that cannot be traced, by its name.
        RuntimeError: if the outputs differ, as they may where code changes a tensor in place that it reads later; or the
            cut network does not run, as where code reads a layer's sizes.
    """
    names = [name for name, _ in net.named_modules()]
    for pattern in idle(keep, names):
        raise ValueError(f"keep={pattern!r} names no module of {type(net).__name__}: mend the pattern")
    home = next((tensor.device for tensor in (*net.parameters(), *net.buffers())), torch.device("cpu"))
    if home.type == torch.get_default_device().type == "cpu":
        return _cut(net, inputs, keep, allow_dead)
    # on the CPU: it is a matter of small masks, and of outputs compared in full precision
    with torch.device("cpu"):
        found = _cut(copy.deepcopy(net).cpu(), placed(inputs, "cpu"), keep, allow_dead)
        found.network.to(home)
    return found


def _cut(net: nn.Module, inputs: Any, keep: Sequence[str], allow_dead: bool) -> Cut:
    original = nn.Sequential(net) if not list(net.children()) else net  # a single layer has nothing around it
    new = copy.deepcopy(original)
    open_transformers(new, tuple(keep))
    with in_mode(new, False):
        traced = trace(new, inputs, keep)
        absorb_gates(traced, keep)
        steps, units = analyse(traced, keep)
        kept_units = _find_kept(steps, units, allow_dead)
        _replace(new, steps, kept_units)
        edits = _edits(steps, kept_units)
    small = with_calls(new, traced.graph, edits) if edits else new
    small.train(net.training)
    most = _difference(original, small, inputs)
    kinds = {tensor.dtype for tensor in (*net.parameters(), *net.buffers()) if tensor.is_floating_point()}
    if not most <= max([_TOLERANCE, *(_ROUNDINGS * torch.finfo(kind).eps for kind in kinds)]):
        raise RuntimeError(
            f"the cut network's outputs differ by {most:.2g} of the largest: name in keep= the module whose code is "
            "unusual, such as one that changes its input in place"
        )
    found = [step for step in steps if isinstance(step, Layer) and step.axis is not None]
    layers = {step.name if original is net else "": step for step in found}
    return Cut(
        small if original is net else small[0],  # type: ignore[index]
        {name: (len(s.needed), int(_kept(s, kept_units).sum())) for name, s in layers.items()},
        {name: reason for name, s in layers.items() if (reason := _why_stayed(s, steps, kept_units))},
        most,
    )


def _find_kept(steps: list[Operation], units: Units, allow_dead: bool) -> Tensor:
    """For each unit, whether it stays; of a layer that would die whole, one does."""
    needed = [step.axis.units[step.needed] for step in steps if step.axis is not None]
    kept = units.kept(needed)
    layers = {step: step.axis for step in steps if isinstance(step, Layer) and step.axis is not None}
    dead = [step for step, axis in layers.items() if not kept[axis.units].any()]
    constant = [step for step, axis in layers.items() if not axis.varies.any()]
    if (constant or dead) and not allow_dead:
        culprit = constant[0] if constant else dead[-1]
        raise ValueError(
            f"layer {culprit.name!r} would die whole: none of its {len(culprit.needed)} units both varies and has an effect"
            "; use a higher threshold, or allow_dead=True, which makes a constant of it"
        )
    return units.kept([*needed, *(layers[step].units[:1] for step in dead)])


def _kept(step: Operation, kept_units: Tensor) -> Tensor:
    """Which indices of a step's output stay."""
    return kept_units[step.axis.units] if step.axis is not None else torch.ones(0, dtype=torch.bool)


def _replace(net: nn.Module, steps: list[Operation], kept_units: Tensor) -> None:
    for step in steps:
        if step.node.op == "call_module" and (step.axis is not None or step.cuts_more):
            module = step.replacement(lambda s: _kept(s, kept_units))
            if module is not None:
                replace(net, net.get_submodule(str(step.node.target)), module)


def _edits(steps: list[Operation], kept_units: Tensor) -> dict[str, dict[str, Any]]:
    edits = {}
    for step in steps:
        args = step.edited_arguments(lambda s: _kept(s, kept_units))
        if args is not None:
            pairs = enumerate(zip(args, step.node.args, strict=True))
            edits[step.node.name] = {str(i): new for i, (new, old) in pairs if new is not old and new != old}
    return edits


def _why_stayed(layer: Operation, steps: list[Operation], kept_units: Tensor) -> str | None:
    """Units of a layer that emit a constant and are there all the same."""
    assert layer.axis is not None
    constant = layer.axis.units[_kept(layer, kept_units) & ~(layer.axis.varies.to(kept_units.device))]
    if not len(constant):
        return None
    readers = [
        step.name
        for step in steps
        for source, reads in zip(step.inputs, step.backward(), strict=True)
        if source.axis is not None and _reads_any(source.axis, reads, constant) and _holds_back(step)
    ]
    because = f"for they are read by {', '.join(dict.fromkeys(readers))}" if readers else "since a layer has at least one"
    return f"{len(constant)} of {len(layer.axis.units)} units are constant and stay, {because}"


def _reads_any(axis: Axis, reads: Tensor | None, units: Tensor) -> bool:
    mask = torch.isin(axis.units, units)
    return bool(mask.any()) if reads is None else bool((mask & reads.cpu()).any())


def _holds_back(step: Operation) -> bool:
    """Whether a step is why a unit that it reads stays, and does not only pass it on."""
    return isinstance(step, Layer | Barrier | ElementwiseStep) or step.axis is None


@torch.no_grad()
def _difference(net: nn.Module, small: nn.Module, inputs: Any) -> float:
    """The largest difference of outputs, over the largest finite number of each.

    Raises:
        ValueError: if the network gives nothing but NaN.
        RuntimeError: if the small one does not run.
    """
    with in_mode(net, False), in_mode(small, False):
        expected = list(tensors(call_network(net, inputs)))
        try:
            found = list(tensors(call_network(small, inputs)))
        except Exception as error:
            raise RuntimeError(
                f"the cut network does not run, at {_where(error, small, net)} ({str(error).partition(chr(10))[0]}): name "
                "that module in keep=, or those whose widths or attributes its code reads"
            ) from error
    pairs = [(a, b) for a, b in zip(expected, found, strict=True) if a.is_floating_point() and a.numel()]
    if pairs and all(bool(a.isnan().all()) for a, _ in pairs):
        raise ValueError(
            f"{type(net).__name__} gives nothing but NaN on the example inputs, on which a cut cannot be checked: pass "
            "others by inputs="
        )
    return max((_distance(a, b) for a, b in pairs), default=0.0)


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest finite number of the first."""
    most, largest = difference(a, b)
    return most / max(largest, torch.finfo(a.dtype).tiny)


def _where(error: Exception, small: nn.Module, net: nn.Module) -> str:
    """The innermost module that raised an error, by its name in the network before the cut."""
    old = {name for name, _ in net.named_modules()}
    names = {id(module): name for name, module in small.named_modules() if name in old}
    selves = [id(frame.f_locals.get("self")) for frame, _ in walk_tb(error.__traceback__)]
    name = next((names[key] for key in reversed(selves) if key in names), "")
    return f"module {name!r}" if name else f"the code of {type(net).__name__}"
