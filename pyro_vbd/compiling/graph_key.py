"""What a traced graph is right for: inputs of certain shapes, certain tensors, and the numbers that modules hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from pyro_vbd.compiling.static_model import frozen, has_hooks, plain_attributes

__all__ = ["Holdings", "flat_inputs", "input_key", "obstacle"]


class Holdings:
    """What modules, and objects beside them, hold: tensors, and the numbers, words and flags that a graph has built in.

    Args:
        parts: a model, a guide, an objective.
        parameters: those that are trained, ``pyro.param`` statements' among them.
    """

    def __init__(self, parts: Sequence[Any] = (), parameters: Sequence[Tensor] = ()) -> None:
        modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
        spaces = [space for module in modules for space in (module._parameters, module._buffers, module._modules)]
        # modules too: another one in the place of one, as vbd.restrict puts it there, leaves the tensors of the first alone
        self._held: list[tuple[Any, str, Any]] = [
            *((space, name, held) for space in spaces for name, held in space.items()),
            *_stated(parameters),
        ]
        self._tensors = [held for *_, held in self._held if isinstance(held, Tensor)]
        # the KL's weight is an input of every graph
        self._attributes = [place for place in plain_attributes(parts) if place[1] != "kl_weight"]

    def __bool__(self) -> bool:
        """Whether there are any tensors."""
        return bool(self._tensors)

    def have_moved(self) -> bool:
        """Whether a module has been moved, or was given other parameters, buffers or submodules."""
        return any(space.get(name) is not held for space, name, held in self._held)

    def key(self) -> tuple[Any, ...]:
        """What a graph has built in of it, as something to compare and to look up."""
        return (
            *(frozen(space.get(name)) for space, name in self._attributes),
            *((tensor.requires_grad, tensor.dtype, tensor.device, has_hooks(tensor)) for tensor in self._tensors),
            torch.get_default_dtype(),
        )


def flat_inputs(args: Any, kwargs: Any) -> tuple[Sequence[Any], Any]:
    """The leaves of a model's inputs, and their structure."""
    if not kwargs and all(isinstance(value, Tensor) for value in args):
        return args, len(args)  # the usual case, without the time that tree_flatten takes
    return tree_flatten((args, kwargs))


def input_key(leaves: Sequence[Any], structure: Any) -> tuple[Any, ...]:
    """What a graph has built in of its inputs."""
    return (
        structure,
        *((v.shape, v.stride(), v.dtype, v.device) if isinstance(v, Tensor) else v for v in leaves),
    )


def obstacle(leaves: Sequence[Any]) -> str | None:
    """Why a call cannot run as a graph, as far as its inputs tell."""
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        return "autocast is on"
    if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
        return "an input requires a gradient"
    if not all(isinstance(leaf, Tensor | bool | int | float | str | None) for leaf in leaves):
        return "an input is neither a tensor nor a number or a word"
    return None


# --- inside ----------------------------------------------------------------------------------------------------------


class _ParamStore:
    """Pyro's parameters by name, wherever the store keeps them at present."""

    def get(self, name: str) -> Tensor | None:
        """The leaf, or None."""
        return dict(pyro.get_param_store().named_parameters()).get(name)


def _stated(parameters: Sequence[Tensor]) -> list[tuple[_ParamStore, str, Tensor]]:
    """Those of ``parameters`` that a ``pyro.param`` statement has made."""
    ours = {id(parameter) for parameter in parameters}
    return [(_ParamStore(), name, leaf) for name, leaf in pyro.get_param_store().named_parameters() if id(leaf) in ours]
