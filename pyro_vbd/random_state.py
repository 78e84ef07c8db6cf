"""The random states that training draws on, as tensors and numbers that a checkpoint can hold."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

__all__ = ["forked_random_state", "get_random_state", "set_random_state"]


def get_random_state() -> dict[str, Any]:
    """The states of Python, NumPy, and torch on the CPU and on each CUDA device."""
    version, words, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002  (the state that pyro.set_rng_seed sets)
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to a state of :func:`get_random_state`; states of CUDA devices that are not here are left out."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    for index, value in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(value.cpu(), index)


def forked_random_state() -> AbstractContextManager[None]:
    """A context after which torch's random states are as they were before it, on the CPU and on all accelerators.

    ``torch.random.fork_rng()`` warns where there are several CUDA devices and none is named.
    """
    if torch.cuda.is_available():
        return torch.random.fork_rng(devices=range(torch.cuda.device_count()), device_type="cuda")
    return torch.random.fork_rng()
