"""Where a model lies, and batches that are brought to it: a DataLoader's come from the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["common_device", "moved", "placed"]


def common_device(*parts: Any) -> torch.device | None:
    """The device of all tensors of modules and structures; None where there are none, or they lie on several."""
    devices = set()
    for part in parts:
        tensors = [*part.parameters(), *part.buffers()] if isinstance(part, nn.Module) else tree_leaves(part)
        devices |= {tensor.device for tensor in tensors if isinstance(tensor, Tensor)}
    return devices.pop() if len(devices) == 1 else None


def placed(values: Any, device: Any) -> Any:
    """A structure with its tensors on the device; as it is where the device is None."""
    if device is None:
        return values
    return tree_map(lambda v: v.to(device) if isinstance(v, Tensor) else v, values)


def moved(data: Iterable[Any], device: Any) -> Iterator[tuple[Any, ...]]:
    """Batches as tuples of positional arguments, on the device; where they are if it is None."""
    for batch in data:
        yield placed(tuple(batch) if isinstance(batch, tuple | list) else (batch,), device)
