"""Batches of tensors that fit into memory: indexed where they lie, not fetched datum by datum."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["Batches"]


class Batches:
    """Passes over tensors of equal length, as tuples of batches; a DataLoader for data in memory.

    The order of a pass follows from torch's random state.

    Args:
        tensors: of shape ``(N, ...)`` each, on any device.
        batch_size: B; the last batch of a pass may be smaller. In :func:`~pyro_vbd.fit` under torch.distributed, the data
            of all processes together.
        shuffle: whether each pass takes the data in a new order.

    Raises:
        TypeError: for something else than a tensor.
        ValueError: for tensors of different lengths, no data, or a batch size below 1.
    """

    def __init__(self, *tensors: Tensor, batch_size: int = 100, shuffle: bool = True) -> None:
        if others := [type(value).__name__ for value in tensors if not isinstance(value, Tensor)]:
            raise TypeError(
                f"Batches was given {', '.join(others)}: pass tensors, such as torch.as_tensor(x) of an array x"
            )
        lengths = [len(tensor) if tensor.dim() else 0 for tensor in tensors]
        if not lengths or len(set(lengths)) > 1 or lengths[0] == 0:
            raise ValueError(f"Batches needs tensors of one length above 0, but they have {lengths}")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} holds nothing: use 1 or more")
        self.tensors, self.batch_size, self.shuffle = tensors, batch_size, shuffle

    def __len__(self) -> int:
        """Batches in a pass."""
        return -(-len(self.tensors[0]) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for index in self.order().split(self.batch_size):
            yield self.take(index)

    def order(self) -> Tensor:
        """The indices of a pass, of shape ``(N,)``, on the device of the data."""
        count = len(self.tensors[0])
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        return order.to(self.tensors[0].device)

    def take(self, index: Tensor) -> tuple[Tensor, ...]:
        """The data at some indices, of shape ``(B,)``, as a batch."""
        return tuple(tensor.index_select(0, index) for tensor in self.tensors)  # half the time of tensor[index]
