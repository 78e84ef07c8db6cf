"""What the data of a supervised model must be, checked before wrong ones can give a plausible number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pyro_vbd.value_checks import check_values

__all__ = [
    "binary_targets",
    "check_data_dimension",
    "check_inputs",
    "check_shape",
    "check_size",
    "check_targets",
    "class_targets",
    "held_out_data",
]


_held_out: ContextVar[bool] = ContextVar("held_out", default=False)


@contextmanager
def held_out_data() -> Iterator[None]:
    """Inside the context the data are not trained on, and may be more than those that are."""
    token = _held_out.set(True)
    try:
        yield
    finally:
        _held_out.reset(token)


def check_size(batch: int, num_data: int | None) -> None:
    """Refuse a batch without data, and one for training that is larger than the whole training set (None: unknown).

    Raises:
        ValueError: for either.
    """
    if batch == 0:
        raise ValueError("the batch is empty: its log-likelihood would be 0; pass at least one datum")
    if num_data is not None and batch > num_data and not _held_out.get():
        raise ValueError(f"the batch holds {batch} data, but num_data={num_data}: pass the size of the whole data set")


def check_data_dimension(x: Any, count: int) -> None:
    """Refuse a vector whose outputs are of another length: it is one datum, and its outputs would pass for data.

    Raises:
        ValueError: for such.
    """
    if isinstance(x, Tensor) and x.dim() == 1 and len(x) != count:
        raise ValueError(
            f"inputs of shape {tuple(x.shape)} have outputs for {count} data: put a dimension of data in front (x[None])"
        )


def check_inputs(x: Any) -> None:
    """Refuse inputs of which one is NaN or infinite.

    Args:
        x: a tensor, or a structure of them.

    Raises:
        ValueError: if one is; in a compiled step, before the graph runs.
    """
    for value in tree_leaves(x):
        if isinstance(value, Tensor) and value.is_floating_point():
            check_values(_check_finite_inputs, value)


def _check_finite_inputs(x: Tensor) -> None:
    # a sum is quick to look at, and holds every NaN and infinity of its terms
    if not math.isfinite(x.detach().sum().item()) and (bad := int((~x.isfinite()).sum())):
        raise ValueError(f"the inputs hold {bad} values that are NaN or infinite: clean or scale the data")


def check_shape(y: Tensor, shape: torch.Size) -> None:
    """Refuse targets of another shape than the outputs call for.

    Raises:
        ValueError: if they are.
    """
    if y.shape != shape:
        raise ValueError(f"the targets have shape {tuple(y.shape)}, the outputs call for {tuple(shape)}: reshape y")


def check_targets(y: Tensor, shape: torch.Size) -> None:
    """Refuse targets of another shape, and numbers that are not finite.

    Raises:
        ValueError: for either.
    """
    check_shape(y, shape)
    if y.is_floating_point():
        check_values(_check_finite, y)


def _check_finite(y: Tensor) -> None:
    if not bool(y.isfinite().all()):
        raise ValueError(f"{int((~y.isfinite()).sum())} targets are NaN or infinite: clean the data")


def binary_targets(
    y: Tensor | None, shape: torch.Size, dtype: torch.dtype, ignore_index: int | None = None
) -> Tensor | None:
    """Targets of yes or no, in the shape and dtype of the logits; None as it is.

    Raises:
        ValueError: for another shape, or a number besides 0, 1 and ``ignore_index``.
    """
    if y is None:
        return None
    check_targets(y.squeeze(-1) if len(shape) == 1 and y.dim() == 2 and y.size(1) == 1 else y, shape)
    check_values(_check_binary, y, ignore_index=ignore_index)
    return y.reshape(shape).to(dtype)  # the loss takes the dtype of its targets


def _check_binary(y: Tensor, ignore_index: int | None) -> None:
    counted = y if ignore_index is None else y[y != ignore_index]
    if not bool(((counted == 0) | (counted == 1)).all()):
        raise ValueError(f"binary targets lie between {float(counted.min())} and {float(counted.max())}: use 0 and 1")


def class_targets(y: Tensor | None, shape: torch.Size, classes: int, ignore_index: int | None) -> Tensor | None:
    """Class labels as they are, checked; None as it is.

    Args:
        y: labels.
        shape: that they must have.
        classes: their number.
        ignore_index: the label that counts for nothing.

    Raises:
        ValueError: for another shape, a type that is no integer, or a label outside 0 to ``classes - 1``.
    """
    if y is None:
        return None
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"class labels are {y.dtype}: use integers from 0 to {classes - 1} (y.long())")
    check_targets(y, shape)
    check_values(_check_classes, y, classes=classes, ignore_index=ignore_index)
    return y


def _check_classes(y: Tensor, classes: int, ignore_index: int | None) -> None:
    counted = y if ignore_index is None else y[y != ignore_index]
    if not counted.numel():
        return
    low, high = (int(bound) for bound in counted.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(
            f"class labels lie between {low} and {high}, but the network has {classes} outputs: use labels from 0 to "
            f"{classes - 1}"
        )
