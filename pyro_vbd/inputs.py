"""Inputs of a model: a tensor or a packed sequence, a tuple or list of several, or a dict of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["arguments", "is_packed", "is_several", "length", "lengths", "part", "shapes"]


def is_packed(value: Any) -> bool:
    """Whether it is a packed sequence: one input, although a tuple."""
    return isinstance(value, PackedSequence)


def is_several(value: Any) -> bool:
    """Whether it is a tuple or list of inputs, and not one."""
    return isinstance(value, tuple | list) and not is_packed(value)


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs as positional and keyword arguments."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return tuple(x) if is_several(x) else (x,), {}


def length(values: Any) -> int | None:
    """How many data a structure holds, by the first tensor or packed sequence in it; None where there is neither."""
    for leaf in tree_leaves(values, is_leaf=is_packed):
        if is_packed(leaf):
            return int(leaf.batch_sizes[0])
        if isinstance(leaf, Tensor) and leaf.dim():
            return len(leaf)
    return None


def lengths(values: Any) -> set[int]:
    """The lengths of the tensors in a structure; a number has 0."""
    return {len(leaf) if leaf.dim() else 0 for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}


def shapes(values: Any) -> Any:
    """The structure with tensors of the same shapes and no numbers in them; None where it holds an object of another kind.

    Numbers, words and None stay; an object would be kept alive with all that it holds.
    """
    leaves = tree_leaves(values)
    if any(not (leaf is None or isinstance(leaf, Tensor | int | float | complex | str)) for leaf in leaves):
        return None
    return tree_map(_shape, values, is_leaf=is_packed)


def _shape(value: Any) -> Any:
    if is_packed(value):  # a tuple that wants its lengths on the CPU
        return value._replace(data=_shape(value.data))
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


def part(values: Any, index: slice | Tensor) -> Any:
    """The data at an index in a structure: of its tensors; what is none, such as a flag or None, stays as it is."""
    return tree_map(lambda leaf: _rows(leaf, index) if isinstance(leaf, Tensor) else leaf, values)


def _rows(value: Tensor, index: slice | Tensor) -> Tensor:
    if value.layout is torch.strided:
        return value[index]
    rows = torch.arange(len(value), device=value.device)[index]
    # no other layout has an operation for it
    return value.to_sparse_coo().index_select(0, rows).to_sparse(layout=value.layout)
