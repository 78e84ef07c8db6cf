"""What a model is given for inputs: a tensor or packed sequence, several of them in a tuple, or some by name in a dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.nn.utils.rnn import PackedSequence

__all__ = ["arguments", "is_packed", "is_several"]


def is_packed(value: Any) -> bool:
    """Whether it is a packed sequence: one input, although a tuple."""
    return isinstance(value, PackedSequence)


def is_several(value: Any) -> bool:
    """Whether it is a tuple or list of inputs, and not one."""
    return isinstance(value, tuple | list) and not is_packed(value)


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the keyword arguments that inputs are."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return tuple(x) if is_several(x) else (x,), {}
