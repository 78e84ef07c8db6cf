"""Tensors of several members as one, of shape ``(K, ...)``, for as long as a program works on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

__all__ = ["Stacks"]


class _Stack(NamedTuple):
    tensors: Sequence[Tensor]
    values: Tensor
    changes: bool


@final
class Stacks:
    """Stacks of members' tensors. The same K tensors have the same stack, at one place in memory, whoever asks."""

    def __init__(self) -> None:
        self._stacks: dict[Any, _Stack] = {}
        self._before = self._stacks

    @contextmanager
    def held(self, active: Sequence[bool]) -> Iterator[None]:
        """Inside, stacks hold the tensors' values; after it, the tensors of active members have what became of them."""
        self._before, self._stacks = self._stacks, {}  # those that nobody asks for again are let go
        try:
            yield
        finally:
            for stack in self._stacks.values():
                for tensor, value, is_active in zip(stack.tensors, stack.values, active, strict=True):
                    if stack.changes and is_active:
                        tensor.detach().copy_(value)

    @torch.no_grad()
    def take(self, tensors: Sequence[Tensor], changes: bool) -> tuple[Tensor, bool]:
        """The stack of one tensor of each member, of shape ``(K, ...)``, and True; or the tensor that all share, and False.

        Args:
            tensors: of one shape.
            changes: whether the program changes them.

        Raises:
            ValueError: where members share memory that one of them changes.
        """
        key = tuple(_place(tensor) for tensor in tensors)
        places = len(set(key)) if tensors[0].numel() else len(key)
        if not changes and places == 1:
            return tensors[0], False
        if changes and places < len(key):
            raise ValueError(
                f"members share a tensor of shape {tuple(tensors[0].shape)} that training changes: make a network for each "
                "member, and give each pyro.param a name of its own"
            )
        if key not in self._stacks:
            memory = {_storage(t) for stack in self._stacks.values() if stack.changes for t in stack.tensors}
            if not changes and any(_storage(tensor) in memory for tensor in tensors):
                raise ValueError(
                    f"a tensor of shape {tuple(tensors[0].shape)} is a view of one that training changes: copy it"
                )
            known = self._before.get(key)
            self._stacks[key] = _Stack(tensors, torch.stack(list(tensors)) if known is None else known.values, changes)
            for row, tensor in zip(self._stacks[key].values, tensors, strict=True):
                row.copy_(tensor)
        return self._stacks[key].values, True


def _place(tensor: Tensor) -> Any:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
