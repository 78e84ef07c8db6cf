"""Where a model lies, and batches that are brought to it: a DataLoader's come from the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from pyro_vbd.inputs import is_packed, is_several

__all__ = ["brought", "common_device", "moved", "placed"]


def common_device(*parts: Any) -> torch.device | None:
    """The device of all tensors of modules and structures; None where there are none, or they lie on several."""
    devices = set()
    for part in parts:
        tensors = [*part.parameters(), *part.buffers()] if isinstance(part, nn.Module) else tree_leaves(part)
        devices |= {tensor.device for tensor in tensors if isinstance(tensor, Tensor)}
    return devices.pop() if len(devices) == 1 else None


def brought(values: Any, device: torch.device | None) -> Any:
    """A structure with its tensors on the device of a model.

    It stays as it is if that device is None, or if one of its tensors is there already: the others are then taken to be
    where they belong, as the lengths of sequences are on the CPU.
    """
    leaves = [leaf.data if is_packed(leaf) else leaf for leaf in tree_leaves(values, is_leaf=is_packed)]
    if device is None or any(isinstance(leaf, Tensor) and leaf.device == device for leaf in leaves):
        return values
    return placed(values, device)


def moved(data: Iterable[Any], *parts: Any, device: Any = None) -> Iterator[tuple[Any, ...]]:
    """Batches as tuples of positional arguments, moved to ``device``; without one, to the device of the parts."""
    home = common_device(*parts)
    for batch in data:
        batch = tuple(batch) if is_several(batch) else (batch,)
        yield brought(batch, home) if device is None else placed(batch, device)


def placed(values: Any, device: Any) -> Any:
    """A structure with all its tensors on ``device``."""
    # a packed sequence leaves its lengths on the CPU
    return tree_map(lambda v: v.to(device) if isinstance(v, Tensor) or is_packed(v) else v, values, is_leaf=is_packed)
