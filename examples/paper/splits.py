"""Training, validation and test data. What is chosen is chosen on validation data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from examples.data import load

__all__ = ["Splits", "load_splits"]


@dataclass(frozen=True)
class Splits:
    """Images and labels; without validation data, ``x_val`` and ``y_val`` are None."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    x_val: Tensor | None = None
    y_val: Tensor | None = None


def load_splits(name: str, folder: Path, selection: str, device: torch.device) -> Splits:
    """A data set on a device; with ``selection="validation"``, a sixth of its training set becomes validation data.

    The same data are held out for all seeds and methods.
    """
    split = load(name, folder)
    x, y = split.x.to(device), split.y.to(device)
    test = split.x_eval.to(device), split.y_eval.to(device)
    if selection == "last":
        return Splits(x, y, *test)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0), device="cpu").to(device)
    held_out, kept = order[: len(x) // 6], order[len(x) // 6 :]
    return Splits(x[kept], y[kept], *test, x[held_out], y[held_out])
